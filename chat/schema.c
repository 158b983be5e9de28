/* schema.c - JSON Schema to a grammar. Each schema becomes a rule, in one of two spellings: JSON text, or the family's
 * call syntax (bare keys, strings between control tokens, no blanks). The grammar makes a subset of what the schema
 * allows: properties stand in their order, undeclared ones appear only where additionalProperties says so, numbers with
 * bounds have no exponent. What would need more than a grammar, and any keyword not known here, is an error that names
 * keyword and place. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define G4_SCHEMA_MAX_COUNT 4096 /* of characters and elements: there is a node for each */
#define G4_SCHEMA_MAX_DEPTH 200
#define G4_SCHEMA_MAX_LITERAL 64 /* depth of a constant */
#define G4_SCHEMA_INDENT 24      /* blanks at the start of a line, at most */

enum { /* sets of types */
       G4_T_NULL = 1,
       G4_T_BOOLEAN = 2,
       G4_T_INTEGER = 4,
       G4_T_NUMBER = 8,
       G4_T_STRING = 16,
       G4_T_ARRAY = 32,
       G4_T_OBJECT = 64,
       G4_T_ANY = G4_T_NULL | G4_T_BOOLEAN | G4_T_NUMBER | G4_T_STRING | G4_T_ARRAY | G4_T_OBJECT
};

typedef struct {
    const g4_json *schema;
    int rule;
} g4_schema_memo;

typedef struct {
    g4_net *net;
    const g4_json *root;
    int is_call;          /* the call syntax instead of JSON */
    g4_schema_memo *memo; /* the rules that are made */
    int n_memo, cap_memo;
    int any; /* the rule of any value; -1: not made */
    int depth;
    char path[256]; /* where in the document, for errors */
    size_t path_len;
    const char *what; /* stands before the path */
    g4_status st;
    g4_error *err;
} g4_schema;

/* ---- Places and errors --------------------------------------------------------------------------- */

static void g4_schema_fail(g4_schema *c, const char *keyword, const char *fmt, ...) G4_PRINTF(3, 4);
static void g4_schema_fail(g4_schema *c, const char *keyword, const char *fmt, ...)
{
    if (c->st != G4_OK || c->net->failed) return; /* what failed before says what is wrong */
    char why[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    const char *slash = keyword[0] != '\0' ? "/" : "";
    c->st = g4_fail(c->err, G4_ERR_UNSUPPORTED, "%s#%s%s%s: %s", c->what, c->path, slash, keyword, why);
}

/* Is there nothing left to do, because something failed or the call must end? */
static int g4_schema_stops(g4_schema *c) { return g4_net_stops_now(c->net) || c->st != G4_OK; }

/* Append "/name" to the path and return its old length, to go back to. */
static size_t g4_schema_enter(g4_schema *c, const char *name)
{
    const size_t old = c->path_len;
    const int n = snprintf(c->path + old, sizeof c->path - old, "/%s", name);
    if (n > 0) c->path_len = old + (size_t)n < sizeof c->path ? old + (size_t)n : sizeof c->path - 1;
    return old;
}

static void g4_schema_leave(g4_schema *c, size_t old)
{
    c->path_len = old;
    c->path[old] = '\0';
}

/* Is it a whole number, nearer to zero than the limit? */
static int g4_is_whole(double x, double limit) { return x > -limit && x < limit && x == (double)(int64_t)x; }

/* A non-negative integer keyword, or `absent`. */
static int g4_schema_count(g4_schema *c, const g4_json *s, const char *keyword, int absent, int max)
{
    const g4_json *v = g4_json_get(s, keyword);
    if (v == NULL) return absent;
    if (v->kind != G4_JSON_NUMBER || v->number < 0 || !g4_is_whole(v->number, 0x1p63)) {
        g4_schema_fail(c, keyword, "must be a non-negative integer");
        return absent;
    }
    if (v->number > max) {
        g4_schema_fail(c, keyword, "too large for a grammar");
        return absent;
    }
    return (int)v->number;
}

/* ---- Pieces of text ------------------------------------------------------------------------------ */

/* A blank or a line break with its indentation, or nothing; in JSON only. */
static int32_t g4_schema_space(g4_schema *c, int32_t from, int with_lines)
{
    if (c->is_call) return from;
    const int32_t to = g4_net_node(c->net);
    g4_net_empty(c->net, from, to);
    g4_net_byte(c->net, from, to, ' ');
    if (!with_lines) return to;
    int32_t line = g4_net_node(c->net);
    g4_net_byte(c->net, from, line, '\n');
    for (int i = 0; i < G4_SCHEMA_INDENT; i++) {
        const int32_t next = g4_net_node(c->net);
        g4_net_empty(c->net, line, to);
        g4_net_byte(c->net, line, next, ' ');
        line = next;
    }
    g4_net_empty(c->net, line, to);
    return to;
}

static int32_t g4_schema_comma(g4_schema *c, int32_t from)
{
    const int32_t comma = g4_net_node(c->net);
    g4_net_byte(c->net, from, comma, ',');
    return g4_schema_space(c, comma, 1);
}

static int32_t g4_schema_quote(g4_schema *c, int32_t from)
{
    const int32_t to = g4_net_node(c->net);
    if (c->is_call)
        g4_net_control(c->net, from, to, G4_CONTROL_QUOTE);
    else
        g4_net_byte(c->net, from, to, '"');
    return to;
}

/* A literal that a buffer holds, which is freed: as a word in the tree that grows at `from`, or as a text by itself. */
static int32_t g4_schema_put(g4_schema *c, int32_t from, g4_buf *b, int is_word)
{
    const char *s = b->data == NULL ? "" : b->data;
    if (b->failed) c->net->failed = G4_NET_NO_MEMORY;
    from = is_word ? g4_net_word(c->net, from, s, b->len) : g4_net_text(c->net, from, s, b->len);
    g4_buf_free(b);
    return from;
}

/* A key as it stands before the colon: bare in calls. */
static void g4_schema_key(const g4_schema *c, g4_buf *b, const char *s, size_t n)
{
    if (c->is_call)
        g4_buf_add(b, s, n);
    else
        g4_json_quote(b, s, n);
}

static int32_t g4_schema_literal(g4_schema *c, int32_t from, const g4_json *v, int depth);

/* The elements or members of a constant, between their brackets. */
static int32_t g4_schema_literal_list(g4_schema *c, int32_t from, const g4_json *v, int depth)
{
    const int is_array = v->kind == G4_JSON_ARRAY;
    if (depth > G4_SCHEMA_MAX_LITERAL) {
        g4_schema_fail(c, "", "a constant nested more than %d deep", G4_SCHEMA_MAX_LITERAL);
        return from;
    }
    from = g4_net_word(c->net, from, is_array ? "[" : "{", 1);
    for (const g4_json *k = v->child; k != NULL && !g4_net_stops(c->net); k = k->next) {
        if (k != v->child) from = g4_net_str(c->net, from, c->is_call ? "," : ", ");
        if (!is_array) {
            g4_buf key = { .a = c->net->a };
            g4_schema_key(c, &key, k->key, k->key_len);
            g4_buf_str(&key, c->is_call ? ":" : ": ");
            from = g4_schema_put(c, from, &key, 0);
        }
        from = g4_schema_literal(c, from, k, depth + 1);
    }
    return g4_net_word(c->net, from, is_array ? "]" : "}", 1);
}

/* A constant, as words in the tree that grows at `from` where it can; returns the node behind it. */
static int32_t g4_schema_literal(g4_schema *c, int32_t from, const g4_json *v, int depth)
{
    g4_buf b = { .a = c->net->a };
    switch (v->kind) {
    case G4_JSON_ARRAY:
    case G4_JSON_OBJECT: return g4_schema_literal_list(c, from, v, depth);
    case G4_JSON_STRING:
        if (c->is_call) {
            from = g4_net_text(c->net, g4_schema_quote(c, from), v->text, v->text_len);
            return g4_schema_quote(c, from);
        }
        g4_json_quote(&b, v->text, v->text_len);
        break;
    case G4_JSON_NUMBER: g4_buf_add(&b, v->text, v->text_len); break;
    case G4_JSON_NULL: g4_buf_str(&b, "null"); break;
    case G4_JSON_TRUE: g4_buf_str(&b, "true"); break;
    case G4_JSON_FALSE: g4_buf_str(&b, "false"); break;
    }
    return g4_schema_put(c, from, &b, 1);
}

/* ---- Strings ------------------------------------------------------------------------------------- */

/* \uXXXX from its u on. D800 to DFFF are halves of pairs: left out. */
static void g4_schema_unicode_escape(g4_net *net, int32_t from, int32_t to)
{
    static const char digits[3][2] = { { '0', '9' }, { 'a', 'f' }, { 'A', 'F' } };
    int32_t hex[4];
    for (int i = 0; i < 4; i++) hex[i] = g4_net_node(net);
    g4_net_byte(net, from, hex[0], 'u');
    const int32_t behind_d = g4_net_node(net);
    for (int k = 0; k < 3; k++) {
        for (int ch = digits[k][0]; ch <= digits[k][1]; ch++)
            g4_net_byte(net, hex[0], (ch | 0x20) == 'd' ? behind_d : hex[1], ch);
        g4_net_bytes(net, hex[1], hex[2], digits[k][0], digits[k][1]);
        g4_net_bytes(net, hex[2], hex[3], digits[k][0], digits[k][1]);
        g4_net_bytes(net, hex[3], to, digits[k][0], digits[k][1]);
    }
    g4_net_bytes(net, behind_d, hex[2], '0', '7');
}

/* One character of a string between its quotes, in every spelling JSON has for it. */
static void g4_schema_any_char(g4_schema *c, int32_t from, int32_t to)
{
    g4_net *net = c->net;
    if (c->is_call) {
        g4_net_chars(net, from, to, 0, 0x10ffff);
        return;
    }
    for (int i = 0; i < G4_N_PLAIN_RANGES; i++)
        g4_net_chars(net, from, to, g4_plain_ranges[i].low, g4_plain_ranges[i].high);
    const int32_t slash = g4_net_node(net);
    g4_net_byte(net, from, slash, '\\');
    for (const char *letter = "\"\\/bfnrt"; *letter != '\0'; letter++) g4_net_byte(net, slash, to, *letter);
    g4_schema_unicode_escape(net, slash, to);
}

/* min to max characters; max < 0: no end. Returns the node behind them. There is a node for each count of characters so
 * far. Far from both limits, no token can tell the counts apart: they share what is computed for the first of them. */
static int32_t g4_schema_chars(g4_schema *c, int32_t from, int min, int max)
{
    g4_net *net = c->net;
    const int n = max >= 0 ? max : min;
    int32_t count = g4_net_node(net), shared = -1;
    const int32_t end = g4_net_node(net);
    g4_net_empty(net, from, count);
    for (int i = 0; i < n && !net->failed; i++) {
        const int32_t next = g4_net_node(net);
        if (i >= min) g4_net_empty(net, count, end);
        g4_schema_any_char(c, count, next);
        if (max >= 0 && i >= min && max - i > net->longest_token) {
            if (shared < 0) shared = count;
            net->nodes[count].alias = shared;
        }
        count = next;
    }
    g4_net_empty(net, count, end);
    if (max < 0) g4_schema_any_char(c, count, count);
    return end;
}

/* The regular expression of a format; NULL: it is not supported. */
static const char *g4_schema_format(const g4_json *format)
{
    static const struct {
        const char *name, *pattern;
    } formats[] = {
        { "date", "^\\d{4}-(0[1-9]|1[0-2])-(0[1-9]|1\\d|2[0-8])$" },
        { "time", "^([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)$" },
        { "date-time", "^\\d{4}-(0[1-9]|1[0-2])-(0[1-9]|1\\d|2[0-8])T([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?("
                       "Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)$" },
        { "uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$" },
        { "ipv4", "^((25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)\\.){3}(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)$" },
        { "email", "^[a-z0-9]+([._+-][a-z0-9]+){0,3}@[a-z0-9]+(-[a-z0-9]+){0,2}(\\.[a-z0-9]+){0,2}\\.[a-z]{2,8}$" },
    };
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (g4_json_is_text(format, formats[i].name)) return formats[i].pattern;
    return NULL;
}

/* The regular expression that pattern or format asks for, of *len bytes; NULL: neither does, or it cannot be had. */
static const char *g4_schema_expression(g4_schema *c, const g4_json *s, size_t *len)
{
    const g4_json *pattern = g4_json_get(s, "pattern"), *format = g4_json_get(s, "format");
    const char *expression = NULL;
    *len = 0;
    if (pattern != NULL) {
        if (pattern->kind != G4_JSON_STRING) g4_schema_fail(c, "pattern", "must be a string");
        expression = pattern->text;
        *len = pattern->text_len;
    }
    if (format != NULL) {
        if (pattern != NULL) g4_schema_fail(c, "format", "cannot be combined with pattern here");
        expression = g4_schema_format(format);
        if (expression == NULL) g4_schema_fail(c, "format", "this format is not supported");
        *len = expression != NULL ? strlen(expression) : 0;
    }
    return expression;
}

static void g4_schema_string(g4_schema *c, const g4_json *s, int32_t from, int32_t to)
{
    const int min = g4_schema_count(c, s, "minLength", 0, G4_SCHEMA_MAX_COUNT);
    const int max = g4_schema_count(c, s, "maxLength", -1, G4_SCHEMA_MAX_COUNT);
    const char *keyword = g4_json_get(s, "format") != NULL ? "format" : "pattern";
    size_t len;
    const char *expression = g4_schema_expression(c, s, &len);
    if (expression != NULL && (g4_json_get(s, "minLength") != NULL || g4_json_get(s, "maxLength") != NULL))
        g4_schema_fail(c, keyword, "cannot be combined with minLength or maxLength here");
    if (c->st != G4_OK) return;
    int32_t end = g4_schema_quote(c, from);
    if (expression != NULL) {
        char what[340];
        snprintf(what, sizeof what, "%s#%s/%s", c->what, c->path, keyword);
        c->st = g4_net_pattern(c->net, end, &end, expression, len, c->is_call ? G4_RAW : G4_ESCAPED, what, c->err);
    } else {
        end = g4_schema_chars(c, end, min, max);
    }
    g4_net_empty(c->net, g4_schema_quote(c, end), to);
}

/* ---- Numbers ------------------------------------------------------------------------------------- */

/* minimum and exclusiveMinimum, or the other pair, to one bound. */
static void g4_schema_bound(g4_schema *c, const g4_json *s, const char *plain, const char *exclusive, int is_upper,
                            g4_bound *out)
{
    const char *const names[2] = { plain, exclusive };
    const g4_json *v[2] = { g4_json_get(s, plain), g4_json_get(s, exclusive) };
    memset(out, 0, sizeof *out);
    for (int i = 0; i < 2; i++) {
        if (v[i] == NULL) continue;
        if (v[i]->kind != G4_JSON_NUMBER)
            g4_schema_fail(c, names[i], "must be a number");
        else if (out->is_given && (is_upper ? v[i]->number > v[0]->number : v[i]->number < v[0]->number))
            continue; /* the tighter one counts */
        else if (!g4_decimal_read(&out->value, v[i]->text))
            g4_schema_fail(c, names[i], "too many digits");
        out->is_given = 1;
        out->is_exclusive = i;
    }
}

static void g4_schema_number(g4_schema *c, const g4_json *s, int32_t from, int32_t to, int is_integer)
{
    const g4_json *multiple = g4_json_get(s, "multipleOf");
    g4_bound low, high;
    if (multiple != NULL && !(is_integer && multiple->kind == G4_JSON_NUMBER && multiple->number == 1.0))
        g4_schema_fail(c, "multipleOf", "is not supported");
    g4_schema_bound(c, s, "minimum", "exclusiveMinimum", 0, &low);
    g4_schema_bound(c, s, "maximum", "exclusiveMaximum", 1, &high);
    if (c->st != G4_OK) return;
    if (low.is_given || high.is_given) {
        g4_net_between(c->net, from, to, &low, &high, is_integer);
        return;
    }
    const char *expression =
        is_integer ? "-?(0|[1-9][0-9]{0,15})" : "-?(0|[1-9][0-9]{0,15})(\\.[0-9]{1,16})?([eE][+-]?[0-9]{1,2})?";
    g4_net_empty(c->net, g4_net_expression(c->net, from, expression), to);
}

/* ---- Lists --------------------------------------------------------------------------------------- */

static int g4_schema_rule(g4_schema *c, const g4_json *s);

/* A value of the schema s; NULL: any value. */
static void g4_schema_call(g4_schema *c, int32_t from, int32_t to, const g4_json *s)
{
    static const g4_json any = { .kind = G4_JSON_TRUE };
    const int rule = g4_schema_rule(c, s == NULL ? &any : s);
    g4_net_call(c->net, from, to, rule);
}

/* Element i, behind `from`; returns the node behind it. repeats: as many more may follow as they like. */
static int32_t g4_schema_element(g4_schema *c, int32_t from, const g4_json *schema, int i, int repeats)
{
    const int32_t here = g4_net_node(c->net), next = g4_net_node(c->net);
    g4_net_empty(c->net, i > 0 ? g4_schema_comma(c, from) : from, here);
    g4_schema_call(c, here, next, schema);
    if (repeats) g4_net_empty(c->net, g4_schema_comma(c, next), here);
    return next;
}

static void g4_schema_array(g4_schema *c, const g4_json *s, int32_t from, int32_t to)
{
    const g4_json *items = g4_json_get(s, "items"), *prefix = g4_json_get(s, "prefixItems");
    const int min = g4_schema_count(c, s, "minItems", 0, G4_SCHEMA_MAX_COUNT);
    const int max = g4_schema_count(c, s, "maxItems", -1, G4_SCHEMA_MAX_COUNT);
    int n_prefix = 0;
    if (prefix != NULL && prefix->kind != G4_JSON_ARRAY) g4_schema_fail(c, "prefixItems", "must be a list of schemas");
    if (items != NULL && items->kind == G4_JSON_ARRAY)
        g4_schema_fail(c, "items", "as a list is an older draft's: use prefixItems");
    if (c->st != G4_OK) return;
    const g4_json *own = prefix != NULL ? prefix->child : NULL; /* schema of this element alone */
    for (const g4_json *k = own; k != NULL; k = k->next) n_prefix++;
    /* Without a maximum, the element behind those that are asked for repeats. */
    const int n_single = max >= 0 ? max : g4_max_int(min, n_prefix), n = n_single + (max < 0);
    int32_t pos = g4_net_node(c->net), close = g4_net_node(c->net);
    g4_net_byte(c->net, from, pos, '[');
    pos = g4_schema_space(c, pos, 1);
    for (int i = 0; i < n && !g4_schema_stops(c); i++) {
        const size_t old = g4_schema_enter(c, own != NULL ? "prefixItems" : "items");
        if (i >= min) g4_net_empty(c->net, pos, close);
        pos = g4_schema_element(c, pos, own != NULL ? own : items, i, i == n_single);
        g4_schema_leave(c, old);
        if (own != NULL) own = own->next;
    }
    g4_net_empty(c->net, pos, close);
    close = g4_schema_space(c, close, 1);
    g4_net_byte(c->net, close, to, ']');
}

/* ---- Objects ------------------------------------------------------------------------------------- */

/* Keys that are none of n names (sorted, all beginning alike up to `common` bytes), of the characters of a class.
 * Without escapes, so that no spelling of a name gets through. */
static void g4_schema_other_key(g4_schema *c, const g4_class *k, int32_t from, int32_t to, const g4_sorted *names,
                                size_t n, size_t common)
{
    g4_net *net = c->net;
    const int32_t rest = g4_net_node(net);
    for (int r = 0; r < k->n; r++) g4_net_chars(net, rest, rest, k->ranges[r].low, k->ranges[r].high);
    g4_net_empty(net, rest, to);
    const int is_name = n > 0 && names[0].len == common; /* this very name: no end here */
    if (!is_name && (common > 0 || !c->is_call)) g4_net_empty(net, from, to);
    uint32_t next_free = 0;
    for (size_t i = (size_t)is_name, j; i <= n && !g4_net_stops(net); i = j) {
        uint32_t cp = 0x110000; /* what a name goes on with; behind the last name: beyond all characters */
        const size_t size = i < n ? g4_utf8_decode(names[i].text + common, names[i].len - common, &cp) : 0;
        for (int r = 0; r < k->n && cp > next_free; r++) { /* the characters between this and the one before */
            const g4_char_range range = k->ranges[r];
            const uint32_t low = range.low > next_free ? range.low : next_free;
            const uint32_t high = range.high < cp - 1 ? range.high : cp - 1;
            if (low <= high) g4_net_chars(net, from, rest, low, high);
        }
        j = i + 1;
        if (i == n) break;
        while (j < n && names[j].len >= common + size &&
               memcmp(names[j].text + common, names[i].text + common, size) == 0)
            j++;
        const int32_t next = g4_net_node(net);
        for (int r = 0; r < k->n; r++)
            if (cp >= k->ranges[r].low && cp <= k->ranges[r].high) g4_net_chars(net, from, next, cp, cp);
        g4_schema_other_key(c, k, next, to, names + i, j - i, common + size);
        next_free = cp + 1;
    }
}

/* Any key but those names, which are sorted; returns the node behind it. */
static int32_t g4_schema_any_key(g4_schema *c, int32_t from, const g4_sorted *names, size_t n)
{
    g4_class k = { 0 };
    if (c->is_call) g4_net_class_shorthand(c->net, &k, 'w');
    for (int i = 0; i < G4_N_PLAIN_RANGES && !c->is_call; i++)
        g4_net_class_add(c->net, &k, g4_plain_ranges[i].low, g4_plain_ranges[i].high);
    if (!c->is_call) from = g4_schema_quote(c, from);
    const int32_t to = g4_net_node(c->net);
    g4_schema_other_key(c, &k, from, to, names, n, 0);
    g4_net_class_free(c->net, &k);
    return c->is_call ? to : g4_schema_quote(c, to);
}

typedef struct {                                  /* what an object may hold */
    const g4_json *properties, *required, *extra; /* the keywords; extra: additionalProperties */
    /* The declared properties, as Jinja sorts them, then required ones without a schema of their own. */
    g4_sorted *names;
    size_t n_names, n_declared;
    int n_required, has_extra;
} g4_shape;

static const g4_json *g4_shape_first_required(const g4_shape *o)
{
    return o->required != NULL ? o->required->child : NULL;
}

static void g4_shape_check(g4_schema *c, const g4_shape *o)
{
    const g4_json *extra = o->extra;
    if (o->properties != NULL && o->properties->kind != G4_JSON_OBJECT)
        g4_schema_fail(c, "properties", "must be an object");
    if (o->required != NULL && o->required->kind != G4_JSON_ARRAY)
        g4_schema_fail(c, "required", "must be a list of names");
    if (extra != NULL && extra->kind != G4_JSON_OBJECT && extra->kind != G4_JSON_TRUE && extra->kind != G4_JSON_FALSE)
        g4_schema_fail(c, "additionalProperties", "must be a schema");
}

/* Count the names, and check those that are required. */
static void g4_shape_count(g4_schema *c, g4_shape *o)
{
    size_t n_undeclared = 0;
    for (const g4_json *q = g4_shape_first_required(o); q != NULL && !g4_schema_stops(c); q = q->next) {
        if (q->kind != G4_JSON_STRING)
            g4_schema_fail(c, "required", "must be a list of names");
        else if (g4_json_get(o->properties, q->text) == NULL)
            n_undeclared++;
        o->n_required++;
    }
    if (n_undeclared > 0 && g4_json_is(o->extra, G4_JSON_FALSE))
        g4_schema_fail(c, "required",
                       "names a property that properties does not have and additionalProperties forbids");
    o->n_names = o->n_declared + n_undeclared;
}

static void g4_shape_fill(g4_schema *c, g4_shape *o, const g4_dictsort *declared)
{
    size_t n = 0;
    for (; n < declared->n; n++) {
        const g4_json *node = declared->members[n].node;
        o->names[n] = (g4_sorted) { node, node->key, node->key_len, n };
    }
    for (const g4_json *q = g4_shape_first_required(o); q != NULL && !g4_schema_stops(c); q = q->next) {
        if (g4_json_get(o->properties, q->text) != NULL) continue;
        o->names[n] = (g4_sorted) { q, q->text, q->text_len, n };
        n++;
    }
}

static void g4_shape_open(g4_schema *c, g4_shape *o, const g4_json *s)
{
    static const g4_json empty = { .kind = G4_JSON_OBJECT };
    g4_dictsort declared;
    *o = (g4_shape) { .properties = g4_json_get(s, "properties"),
                      .required = g4_json_get(s, "required"),
                      .extra = g4_json_get(s, "additionalProperties") };
    g4_shape_check(c, o);
    if (c->st != G4_OK) return;
    o->has_extra = o->extra == NULL ? o->properties == NULL && o->required == NULL : o->extra->kind != G4_JSON_FALSE;
    const int ok =
        g4_dictsort_open(&declared, c->net->a, o->properties != NULL ? o->properties : &empty, c->net->asker.halt);
    o->n_declared = declared.n;
    g4_shape_count(c, o);
    o->names = g4_alloc(c->net->a, o->n_names + 1, sizeof *o->names);
    if ((!ok || o->names == NULL) && !c->net->failed) c->net->failed = G4_NET_NO_MEMORY;
    if (c->st == G4_OK && !c->net->failed) g4_shape_fill(c, o, &declared);
    g4_dictsort_close(&declared);
}

/* Is the name among those of `required`? NULL has none. */
static int g4_names_hold(const g4_json *required, const char *name, size_t len)
{
    const g4_json text = { .kind = G4_JSON_STRING, .text = name, .text_len = len };
    for (const g4_json *q = g4_json_is(required, G4_JSON_ARRAY) ? required->child : NULL; q != NULL; q = q->next)
        if (g4_json_equal(q, &text)) return 1;
    return 0;
}

/* A rule for one member. name NULL: any key but those of the object. */
static int g4_schema_member(g4_schema *c, const g4_shape *o, const g4_sorted *name, const g4_json *value)
{
    const int r = g4_net_rule(c->net, NULL, 0);
    if (c->net->failed) return 0;
    int32_t pos = c->net->rules[r].start;
    const int32_t end = c->net->rules[r].end;
    if (name != NULL) {
        g4_buf key = { .a = c->net->a };
        g4_schema_key(c, &key, name->text, name->len);
        pos = g4_schema_put(c, pos, &key, 0);
    } else {
        pos = g4_schema_any_key(c, pos, o->names, o->n_names);
    }
    pos = g4_schema_space(c, g4_net_str(c->net, pos, ":"), 0);
    g4_schema_call(c, pos, end, value);
    return r;
}

typedef struct { /* nodes between members: no member stands yet, or some do */
    int32_t none, some;
} g4_member_gap;

/* Member i behind `pos`. In JSON the declared ones stand as written, in calls sorted as the template sorts; *declared
 * is the next one that is written. */
static g4_member_gap g4_schema_next_member(g4_schema *c, const g4_shape *o, g4_member_gap pos, size_t i,
                                           const g4_json **declared)
{
    g4_net *net = c->net;
    const int is_declared = i < o->n_declared;
    g4_sorted name = o->names[i];
    if (is_declared && !c->is_call) name = (g4_sorted) { *declared, (*declared)->key, (*declared)->key_len, i };
    if (is_declared) *declared = (*declared)->next;
    const size_t old = g4_schema_enter(c, "properties");
    g4_schema_enter(c, name.text);
    const int rule = g4_schema_member(c, o, &name, is_declared ? name.node : o->extra);
    g4_schema_leave(c, old);
    g4_member_gap next;
    next.none = g4_net_node(net);
    next.some = g4_net_node(net);
    g4_net_call(net, pos.none, next.some, rule);
    g4_net_call(net, g4_schema_comma(c, pos.some), next.some, rule);
    if (!is_declared || g4_names_hold(o->required, name.text, name.len)) return next;
    g4_net_empty(net, pos.none, next.none);
    g4_net_empty(net, pos.some, next.some);
    return next;
}

/* Any number of members that are not declared; returns the node behind them. It sorts the names of the object, whose
 * order is not needed any more. */
static int32_t g4_schema_extra_members(g4_schema *c, g4_shape *o, g4_member_gap pos)
{
    if (!g4_sort(c->net->a, o->names, o->n_names, sizeof *o->names, g4_sorted_compare, c->net->asker.halt))
        c->net->failed = G4_NET_NO_MEMORY;
    const size_t old = g4_schema_enter(c, "additionalProperties");
    const int rule = g4_schema_member(c, o, NULL, o->extra);
    g4_schema_leave(c, old);
    const int32_t more = g4_net_node(c->net);
    g4_net_empty(c->net, pos.some, more);
    g4_net_call(c->net, pos.none, more, rule);
    g4_net_call(c->net, g4_schema_comma(c, more), more, rule);
    return more;
}

static void g4_schema_members(g4_schema *c, g4_shape *o, int32_t from, int32_t to, int min, int max)
{
    g4_net *net = c->net;
    g4_member_gap pos;
    pos.none = g4_net_node(net);
    pos.some = g4_net_node(net);
    g4_net_byte(net, from, pos.none, '{');
    pos.none = g4_schema_space(c, pos.none, 1);
    const g4_json *declared = o->properties != NULL ? o->properties->child : NULL;
    int n = 0;
    for (size_t i = 0; i < o->n_names && !g4_schema_stops(c); i++, n++)
        pos = g4_schema_next_member(c, o, pos, i, &declared);
    if (o->has_extra && c->st == G4_OK && !net->failed) pos.some = g4_schema_extra_members(c, o, pos);
    if (min > o->n_required && !(min == 1 && (n > 0 || o->has_extra)))
        g4_schema_fail(c, "minProperties", "is supported up to the number of required properties, or as 1");
    if (max >= 0 && (o->has_extra || max < n)) g4_schema_fail(c, "maxProperties", "is not supported here");
    int32_t close = g4_net_node(net);
    if (min == 0 || o->n_required > 0) g4_net_empty(net, pos.none, close);
    g4_net_empty(net, pos.some, close);
    close = g4_schema_space(c, close, 1);
    g4_net_byte(net, close, to, '}');
}

static void g4_schema_object(g4_schema *c, const g4_json *s, int32_t from, int32_t to)
{
    const int min = g4_schema_count(c, s, "minProperties", 0, G4_SCHEMA_MAX_COUNT);
    const int max = g4_schema_count(c, s, "maxProperties", -1, INT32_MAX);
    g4_shape o;
    g4_shape_open(c, &o, s);
    if (c->st == G4_OK && !c->net->failed) g4_schema_members(c, &o, from, to, min, max);
    g4_free(c->net->a, o.names);
}

/* ---- Types and references ------------------------------------------------------------------------ */

/* The tools of some hosts write type names in capitals. */
static int g4_is_type_name(const g4_json *v, const char *name)
{
    size_t i = 0;
    if (!g4_json_is(v, G4_JSON_STRING) || v->text_len != strlen(name)) return 0;
    while (i < v->text_len && (v->text[i] | 0x20) == name[i]) i++;
    return i == v->text_len;
}

static int g4_schema_type_bit(const g4_json *v)
{
    static const char *const names[] = { "null", "boolean", "integer", "number", "string", "array", "object" };
    for (int i = 0; i < 7; i++)
        if (g4_is_type_name(v, names[i])) return 1 << i;
    return 0;
}

/* The types that the keywords speak of when the schema names none. */
static int g4_schema_implied_types(const g4_json *s)
{
    static const struct {
        const char *keyword;
        int type;
    } hints[] = { { "properties", G4_T_OBJECT },
                  { "required", G4_T_OBJECT },
                  { "additionalProperties", G4_T_OBJECT },
                  { "minProperties", G4_T_OBJECT },
                  { "maxProperties", G4_T_OBJECT },
                  { "items", G4_T_ARRAY },
                  { "prefixItems", G4_T_ARRAY },
                  { "minItems", G4_T_ARRAY },
                  { "maxItems", G4_T_ARRAY },
                  { "minLength", G4_T_STRING },
                  { "maxLength", G4_T_STRING },
                  { "pattern", G4_T_STRING },
                  { "format", G4_T_STRING },
                  { "minimum", G4_T_NUMBER },
                  { "maximum", G4_T_NUMBER },
                  { "exclusiveMinimum", G4_T_NUMBER },
                  { "exclusiveMaximum", G4_T_NUMBER },
                  { "multipleOf", G4_T_NUMBER } };
    int types = 0;
    for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++)
        if (g4_json_get(s, hints[i].keyword) != NULL) types |= hints[i].type;
    return types == 0 ? G4_T_ANY : types;
}

/* The types a schema allows; 0: its keyword type is wrong. */
static int g4_schema_types(const g4_json *s)
{
    const g4_json *type = g4_json_get(s, "type");
    int types = 0;
    if (type == NULL) return g4_schema_implied_types(s);
    if (type->kind != G4_JSON_ARRAY) return g4_schema_type_bit(type);
    for (const g4_json *t = type->child; t != NULL; t = t->next) {
        const int bit = g4_schema_type_bit(t);
        if (bit == 0) return 0;
        types |= bit;
    }
    return types;
}

/* The types of a value. */
static int g4_json_type_bits(const g4_json *v)
{
    static const int bits[] = {
        [G4_JSON_NULL] = G4_T_NULL,     [G4_JSON_FALSE] = G4_T_BOOLEAN, [G4_JSON_TRUE] = G4_T_BOOLEAN,
        [G4_JSON_NUMBER] = G4_T_NUMBER, [G4_JSON_STRING] = G4_T_STRING, [G4_JSON_ARRAY] = G4_T_ARRAY,
        [G4_JSON_OBJECT] = G4_T_OBJECT
    };
    const int is_integer = v->kind == G4_JSON_NUMBER && g4_is_whole(v->number, 9e15);
    return bits[v->kind] | (is_integer ? G4_T_INTEGER : 0);
}

/* A part of a JSON pointer, up to the next slash or the end, with ~0 ~1 and %XX resolved; returns its end. */
static size_t g4_pointer_part(const g4_json *pointer, size_t pos, char *name, size_t cap)
{
    const char *s = pointer->text;
    size_t n = 0;
    for (; pos < pointer->text_len && s[pos] != '/' && n < cap - 1; pos++) {
        char ch = s[pos];
        uint32_t byte;
        if (ch == '~' && pos + 1 < pointer->text_len) {
            ch = s[++pos] == '1' ? '/' : '~';
        } else if (ch == '%' && pointer->text_len - pos > 2 && g4_hex_read(s + pos + 1, 2, &byte)) {
            ch = (char)byte;
            pos += 2;
        }
        name[n++] = ch;
    }
    name[n] = '\0';
    return pos;
}

/* The element of a list whose index is written, or the member of that name; NULL: there is none. */
static const g4_json *g4_pointer_step(const g4_json *v, const char *name)
{
    if (v->kind != G4_JSON_ARRAY) return g4_json_get(v, name);
    if (!g4_is_digit(name[0]) || strlen(name) > 6) return NULL;
    const g4_json *element = v->child;
    for (long i = strtol(name, NULL, 10); i > 0 && element != NULL; i--) element = element->next;
    return element;
}

/* #, #/a/b, inside the root. */
static const g4_json *g4_schema_resolve(g4_schema *c, const g4_json *ref)
{
    const g4_json *v = c->root;
    if (!g4_json_is(ref, G4_JSON_STRING) || ref->text_len == 0 || ref->text[0] != '#' ||
        (ref->text_len > 1 && ref->text[1] != '/')) {
        g4_schema_fail(c, "$ref", "only references into the document itself (#/...) are supported");
        return NULL;
    }
    for (size_t pos = 1; pos < ref->text_len && v != NULL;) {
        char name[256];
        pos = g4_pointer_part(ref, pos + 1, name, sizeof name);
        v = g4_pointer_step(v, name);
    }
    if (v == NULL) g4_schema_fail(c, "$ref", "%.120s: there is no such place in the document", ref->text);
    return v;
}

/* ---- Schemas that exclude each other ------------------------------------------------------------- */

/* Does `a` require a property that `b` does not declare? */
static int g4_schema_needs_more(g4_schema *c, const g4_json *a, const g4_json *b)
{
    const g4_json *required = g4_json_get(a, "required"), *properties = g4_json_get(b, "properties");
    for (const g4_json *q = g4_json_is(required, G4_JSON_ARRAY) ? required->child : NULL;
         q != NULL && !g4_schema_stops(c); q = q->next)
        if (q->kind == G4_JSON_STRING && g4_json_get(properties, q->text) == NULL) return 1;
    return 0;
}

static int g4_schema_is_closed(const g4_json *s)
{
    return g4_json_is(g4_json_get(s, "additionalProperties"), G4_JSON_FALSE);
}

static int g4_schema_is_nullable(const g4_json *s) { return g4_py_truthy(g4_json_get(s, "nullable")); }

typedef struct {
    const g4_json *values; /* those of const or enum, a list; NULL: it has neither */
    g4_json single;        /* that of const, as a list */
    int types;             /* of its values; 0: not known */
} g4_schema_set;

static void g4_schema_set_of(g4_schema_set *out, const g4_json *s)
{
    const g4_json *one = g4_json_get(s, "const"), *list = g4_json_get(s, "enum");
    *out = (g4_schema_set) { 0 };
    if (one != NULL) {
        out->single = *one;
        out->single.next = NULL;
        out->values = &out->single;
    } else if (g4_json_is(list, G4_JSON_ARRAY)) {
        out->values = list->child;
    }
    for (const g4_json *v = out->values; v != NULL; v = v->next) out->types |= g4_json_type_bits(v);
    if (out->values == NULL) out->types = g4_json_get(s, "type") == NULL ? G4_T_ANY : g4_schema_types(s);
    if (out->types & G4_T_INTEGER) out->types |= G4_T_NUMBER;
    if (g4_schema_is_nullable(s)) out->types |= G4_T_NULL;
}

static int g4_schema_is_combined(const g4_json *s)
{
    return g4_json_get(s, "anyOf") != NULL || g4_json_get(s, "oneOf") != NULL || g4_json_get(s, "allOf") != NULL;
}

static int g4_schema_disjoint(g4_schema *c, const g4_json *a, const g4_json *b, int depth);

/* Can no object be valid for both of these schemas of objects? */
static int g4_schema_objects_disjoint(g4_schema *c, const g4_json *a, const g4_json *b, int depth)
{
    const int a_needs_more = g4_schema_needs_more(c, a, b), b_needs_more = g4_schema_needs_more(c, b, a);
    if (a_needs_more && b_needs_more) return 1; /* the values of each lack what the other requires */
    if ((a_needs_more || b_needs_more) && g4_schema_is_closed(a) && g4_schema_is_closed(b)) return 1;
    const g4_json *pa = g4_json_get(a, "properties"), *pb = g4_json_get(b, "properties");
    for (const g4_json *p = g4_json_is(pa, G4_JSON_OBJECT) ? pa->child : NULL; p != NULL && !g4_schema_stops(c);
         p = p->next) {
        const g4_json *q = g4_json_get(pb, p->key);
        const int in_both = q != NULL && g4_names_hold(g4_json_get(a, "required"), p->key, p->key_len) &&
                            g4_names_hold(g4_json_get(b, "required"), p->key, p->key_len);
        if (in_both && g4_schema_disjoint(c, p, q, depth + 1)) return 1;
    }
    return 0;
}

/* Can no value made for one of these be valid for the other as well? Errs on the side of no. */
static int g4_schema_disjoint(g4_schema *c, const g4_json *a, const g4_json *b, int depth)
{
    if (depth > 8 || g4_schema_stops(c)) return 0;
    if (g4_json_get(a, "$ref") != NULL)
        return g4_schema_disjoint(c, g4_schema_resolve(c, g4_json_get(a, "$ref")), b, depth + 1);
    if (g4_json_get(b, "$ref") != NULL)
        return g4_schema_disjoint(c, a, g4_schema_resolve(c, g4_json_get(b, "$ref")), depth + 1);
    if (!g4_json_is(a, G4_JSON_OBJECT) || !g4_json_is(b, G4_JSON_OBJECT))
        return g4_json_is(a, G4_JSON_FALSE) || g4_json_is(b, G4_JSON_FALSE);
    g4_schema_set of_a, of_b;
    g4_schema_set_of(&of_a, a);
    g4_schema_set_of(&of_b, b);
    if ((of_a.values == NULL && g4_schema_is_combined(a)) || (of_b.values == NULL && g4_schema_is_combined(b)))
        return 0;
    if ((of_a.types & of_b.types) == 0) return 1;
    if (of_a.values != NULL && of_b.values != NULL) {
        for (const g4_json *v = of_a.values; v != NULL && !g4_schema_stops(c); v = v->next)
            for (const g4_json *w = of_b.values; w != NULL; w = w->next)
                if (g4_json_equal(v, w)) return 0;
        return 1;
    }
    return (of_a.types & of_b.types) == G4_T_OBJECT && g4_schema_objects_disjoint(c, a, b, depth);
}

/* ---- Schemas ------------------------------------------------------------------------------------- */

static int g4_is_annotation(const g4_json *member)
{
    static const char *const names[] = { "title",      "description", "default",   "examples", "example",
                                         "$schema",    "$id",         "$comment",  "$defs",    "definitions",
                                         "deprecated", "readOnly",    "writeOnly", "$anchor",  NULL };
    return g4_json_key_in(member, names);
}

/* The first keyword that is neither in the list nor an annotation; NULL: there is none. */
static const char *g4_schema_first_other(const g4_json *s, const char *const *allowed)
{
    for (const g4_json *m = s->child; m != NULL; m = m->next)
        if (!g4_is_annotation(m) && !g4_json_key_in(m, allowed)) return m->key;
    return NULL;
}

/* The keyword must stand alone, or with those of the list. */
static void g4_schema_check_beside(g4_schema *c, const g4_json *s, const char *keyword, const char *const *allowed)
{
    const char *beside = g4_schema_first_other(s, allowed);
    if (beside != NULL) g4_schema_fail(c, keyword, "cannot be combined with %.60s here", beside);
}

/* The branch i of oneOf must exclude those behind it. */
static void g4_schema_check_branch(g4_schema *c, const g4_json *branch, int i)
{
    int j = i + 1;
    for (const g4_json *other = branch->next; other != NULL && !g4_schema_stops(c); other = other->next, j++)
        if (!g4_schema_disjoint(c, branch, other, 0))
            g4_schema_fail(c, "oneOf",
                           "branches %d and %d may both fit one value: make them exclude each other, or use anyOf", i,
                           j);
}

/* anyOf or oneOf. */
static void g4_schema_branches(g4_schema *c, const g4_json *s, const char *keyword, int32_t from, int32_t to)
{
    const char *const alone[] = { keyword, NULL };
    const g4_json *list = g4_json_get(s, keyword);
    if (!g4_json_is(list, G4_JSON_ARRAY) || list->child == NULL)
        g4_schema_fail(c, keyword, "must be a list of schemas");
    g4_schema_check_beside(c, s, keyword, alone);
    int i = 0;
    for (const g4_json *b = c->st == G4_OK ? list->child : NULL; b != NULL && !g4_schema_stops(c); b = b->next, i++) {
        char index[32];
        snprintf(index, sizeof index, "%d", i);
        if (strcmp(keyword, "oneOf") == 0) g4_schema_check_branch(c, b, i);
        const size_t old = g4_schema_enter(c, keyword);
        g4_schema_enter(c, index);
        g4_schema_call(c, from, to, b);
        g4_schema_leave(c, old);
    }
}

/* const or enum: those of its values that the other of the two and the type allow too. */
static void g4_schema_values(g4_schema *c, const g4_json *s, int32_t from, int32_t to)
{
    static const char *const allowed[] = { "type", "enum", "const", "nullable", NULL };
    const g4_json *one = g4_json_get(s, "const"), *list = g4_json_get(s, "enum");
    int types = g4_json_get(s, "type") != NULL ? g4_schema_types(s) : G4_T_ANY;
    if (types & G4_T_NUMBER) types |= G4_T_INTEGER;
    if (g4_schema_is_nullable(s)) types |= G4_T_NULL;
    if (one == NULL && !g4_json_is(list, G4_JSON_ARRAY)) g4_schema_fail(c, "enum", "must be a list of values");
    g4_schema_check_beside(c, s, one != NULL ? "const" : "enum", allowed);
    if (c->st != G4_OK) return;
    const int32_t words = g4_net_node(c->net); /* a tree of its own */
    g4_net_empty(c->net, from, words);
    for (const g4_json *v = one != NULL ? one : list->child; v != NULL && !g4_net_stops_now(c->net);
         v = one != NULL ? NULL : v->next) {
        int is_listed = one == NULL || list == NULL;
        for (const g4_json *w = g4_json_is(list, G4_JSON_ARRAY) ? list->child : NULL; w != NULL && !is_listed;
             w = w->next)
            is_listed = g4_json_equal(v, w);
        if (is_listed && (g4_json_type_bits(v) & types) != 0)
            g4_net_empty(c->net, g4_schema_literal(c, words, v, 0), to);
    }
}

static void g4_schema_ref(g4_schema *c, const g4_json *s, int32_t from, int32_t to)
{
    static const char *const alone[] = { "$ref", NULL };
    const char *beside = g4_schema_first_other(s, alone);
    if (beside != NULL) g4_schema_fail(c, beside, "cannot be combined with $ref here");
    const g4_json *target = g4_schema_resolve(c, g4_json_get(s, "$ref"));
    if (target != NULL) g4_schema_call(c, from, to, target);
}

static void g4_schema_all_of(g4_schema *c, const g4_json *s, int32_t from, int32_t to)
{
    static const char *const alone[] = { "allOf", NULL };
    const g4_json *all = g4_json_get(s, "allOf");
    if (g4_schema_first_other(s, alone) != NULL || !g4_json_is(all, G4_JSON_ARRAY) || all->child == NULL ||
        all->child->next != NULL)
        g4_schema_fail(c, "allOf", "is supported with one schema and nothing beside it");
    else
        g4_schema_call(c, from, to, all->child);
}

/* A value of one of the schema's types. */
static void g4_schema_typed(g4_schema *c, const g4_json *s, int32_t from, int32_t to)
{
    g4_net *net = c->net;
    int types = g4_schema_types(s);
    if (types == 0) {
        g4_schema_fail(c, "type",
                       "must be null, boolean, integer, number, string, array or object, or a list of these");
        return;
    }
    if (g4_schema_is_nullable(s)) types |= G4_T_NULL;
    const int32_t words = g4_net_node(net);
    g4_net_empty(net, from, words);
    if (types & G4_T_NULL) g4_net_empty(net, g4_net_word(net, words, "null", 4), to);
    if (types & G4_T_BOOLEAN) {
        g4_net_empty(net, g4_net_word(net, words, "true", 4), to);
        g4_net_empty(net, g4_net_word(net, words, "false", 5), to);
    }
    if (types & (G4_T_NUMBER | G4_T_INTEGER)) {
        const int32_t number = g4_net_node(net);
        g4_net_empty(net, from, number);
        g4_schema_number(c, s, number, to, (types & G4_T_NUMBER) == 0);
    }
    if (types & G4_T_STRING) g4_schema_string(c, s, from, to);
    if (types & G4_T_ARRAY) g4_schema_array(c, s, from, to);
    if (types & G4_T_OBJECT) g4_schema_object(c, s, from, to);
}

/* All keywords must be known; uniqueItems may say no. */
static void g4_schema_check_keywords(g4_schema *c, const g4_json *s)
{
    static const char *const known[] = { "type",
                                         "enum",
                                         "const",
                                         "properties",
                                         "required",
                                         "additionalProperties",
                                         "minProperties",
                                         "maxProperties",
                                         "items",
                                         "prefixItems",
                                         "minItems",
                                         "maxItems",
                                         "minLength",
                                         "maxLength",
                                         "pattern",
                                         "format",
                                         "minimum",
                                         "maximum",
                                         "exclusiveMinimum",
                                         "exclusiveMaximum",
                                         "multipleOf",
                                         "anyOf",
                                         "oneOf",
                                         "allOf",
                                         "$ref",
                                         "nullable",
                                         "",
                                         NULL };
    for (const g4_json *m = s->child; m != NULL && !g4_net_stops(c->net); m = m->next) {
        if (g4_is_annotation(m) || g4_json_key_in(m, known)) continue;
        if (strcmp(m->key, "uniqueItems") == 0 && m->kind == G4_JSON_FALSE) continue;
        g4_schema_fail(c, m->key, "this keyword is not supported");
    }
}

/* All that the schema s allows, from node to node. */
static void g4_schema_build(g4_schema *c, const g4_json *s, int32_t from, int32_t to)
{
    static const g4_json plain = { .kind = G4_JSON_OBJECT };
    if (s->kind == G4_JSON_FALSE) return;
    if (s->kind == G4_JSON_TRUE) s = &plain;
    if (s->kind != G4_JSON_OBJECT) {
        g4_schema_fail(c, "", "a schema must be an object, true or false");
        return;
    }
    g4_schema_check_keywords(c, s);
    if (c->st != G4_OK) return;
    if (g4_json_get(s, "$ref") != NULL)
        g4_schema_ref(c, s, from, to);
    else if (g4_json_get(s, "anyOf") != NULL)
        g4_schema_branches(c, s, "anyOf", from, to);
    else if (g4_json_get(s, "oneOf") != NULL)
        g4_schema_branches(c, s, "oneOf", from, to);
    else if (g4_json_get(s, "allOf") != NULL)
        g4_schema_all_of(c, s, from, to);
    else if (g4_json_get(s, "enum") != NULL || g4_json_get(s, "const") != NULL)
        g4_schema_values(c, s, from, to);
    else
        g4_schema_typed(c, s, from, to);
}

/* The rule of a schema, made once. Schemas that say nothing share one. */
static int g4_schema_rule(g4_schema *c, const g4_json *s)
{
    const int says_nothing = s->kind == G4_JSON_TRUE || (s->kind == G4_JSON_OBJECT && s->child == NULL);
    if (says_nothing && c->any >= 0) return c->any;
    for (int i = 0; i < c->n_memo && !says_nothing; i++)
        if (c->memo[i].schema == s) return c->memo[i].rule;
    if (c->depth > G4_SCHEMA_MAX_DEPTH) {
        g4_schema_fail(c, "", "nested more than %d deep", G4_SCHEMA_MAX_DEPTH);
        return 0;
    }
    const int r = g4_net_rule(c->net, NULL, 0);
    if (says_nothing) {
        c->any = r;
    } else {
        g4_schema_memo *memo = g4_array_grow(c->net->a, c->memo, c->n_memo, &c->cap_memo, sizeof *memo);
        if (memo == NULL) {
            c->net->failed = G4_NET_NO_MEMORY;
            return 0;
        }
        c->memo = memo;
        memo[c->n_memo++] = (g4_schema_memo) { s, r };
    }
    if (g4_schema_stops(c)) return 0;
    c->depth++;
    g4_schema_build(c, s, c->net->rules[r].start, c->net->rules[r].end);
    c->depth--;
    return r;
}

/* ---- Grammars of schemas and tools --------------------------------------------------------------- */

g4_status g4_grammar_schema(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t, const char *schema,
                            size_t len, g4_halt *halt, g4_error *err)
{
    g4_arena arena = { .a = a };
    g4_grammar *g = NULL;
    g4_json *doc;
    *out = NULL;
    g4_status st = g4_json_parse_in(&doc, &arena, schema, len, "schema", halt, err);
    if (st == G4_OK) st = g4_grammar_new(&g, a, t, halt, err);
    if (st == G4_OK) {
        g4_schema c = { .net = g4_grammar_net(g), .root = doc, .any = -1, .what = "schema ", .err = err };
        c.net->root = g4_schema_rule(&c, doc);
        g4_free(a, c.memo);
        st = g4_grammar_finish(out, g, c.st, "schema", err);
    }
    g4_arena_free(&arena);
    return st;
}

g4_status g4_grammar_from_schema(g4_grammar **out, const g4_engine *e, const char *schema, size_t len, g4_error *err)
{
    g4_halt halt;
    const g4_status st = g4_grammar_check(out, e, schema, "schema", &halt, err);
    if (st != G4_OK) return st;
    return g4_grammar_schema(out, g4_engine_allocator(e), g4_engine_tokenizer(e), schema,
                             len > 0 ? len : strlen(schema), &halt, err);
}

/* call:NAME{...} of one tool, in the root rule. A tool without parameters takes none; with them, an object whatever
 * else is said. */
static g4_status g4_tool_add(g4_net *net, const g4_json *function, const char *what, g4_error *err)
{
    static const g4_json none = { .kind = G4_JSON_OBJECT };
    const g4_json *name = g4_json_get(function, "name"), *parameters = g4_json_get(function, "parameters");
    if (!g4_json_is(parameters, G4_JSON_OBJECT)) parameters = &none;
    g4_schema c = { .net = net, .root = parameters, .is_call = 1, .any = -1, .what = what, .err = err };
    int32_t pos = g4_net_node(net);
    g4_net_empty(net, net->rules[net->root].start, pos);
    pos = g4_net_text(net, g4_net_str(net, pos, "call:"), name->text, name->text_len);
    if (net->failed) return G4_OK;
    const int32_t end = net->rules[net->root].end;
    if (parameters->child == NULL)
        g4_net_empty(net, g4_net_str(net, pos, "{}"), end);
    else if (g4_schema_types(parameters) & G4_T_OBJECT)
        g4_schema_build(&c, parameters, pos, end);
    else
        g4_schema_fail(&c, "type", "must be object");
    g4_free(net->a, c.memo);
    return c.st;
}

static g4_status g4_tools_add(g4_net *net, const g4_json *tools, const char *only, g4_error *err)
{
    int i = 0, n = 0;
    net->root = g4_net_rule(net, NULL, 0);
    for (const g4_json *tool = tools->child; tool != NULL && !g4_net_stops_now(net); tool = tool->next, i++) {
        const g4_json *function = g4_json_get(tool, "function"), *name = g4_json_get(function, "name");
        char what[80];
        if (!g4_json_is(name, G4_JSON_STRING))
            return g4_fail(err, G4_ERR_ARGUMENT, "tools[%d]: a tool must have a function with a name", i);
        if (only != NULL && !g4_json_is_text(name, only)) continue;
        snprintf(what, sizeof what, "tools[%d].function.parameters ", i);
        const g4_status st = g4_tool_add(net, function, what, err);
        if (st != G4_OK) return st;
        n++;
    }
    if (n > 0 || net->failed) return G4_OK;
    return only != NULL ? g4_fail(err, G4_ERR_ARGUMENT, "there is no tool named %.80s", only)
                        : g4_fail(err, G4_ERR_ARGUMENT, "no tools are declared");
}

g4_status g4_grammar_tools(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t, const g4_json *tools,
                           const char *only, g4_halt *halt, g4_error *err)
{
    g4_grammar *g;
    *out = NULL;
    if (!g4_json_is(tools, G4_JSON_ARRAY)) return g4_fail(err, G4_ERR_ARGUMENT, "tools must be a list of objects");
    g4_status st = g4_grammar_new(&g, a, t, halt, err);
    if (st != G4_OK) return st;
    st = g4_tools_add(g4_grammar_net(g), tools, only, err);
    return g4_grammar_finish(out, g, st, "tools", err);
}

g4_status g4_grammar_from_tools(g4_grammar **out, const g4_engine *e, const char *tools, size_t len, const char *only,
                                g4_error *err)
{
    g4_halt halt;
    g4_json *doc;
    g4_status st = g4_grammar_check(out, e, tools, "tools", &halt, err);
    if (st != G4_OK) return st;
    g4_arena arena = { .a = g4_engine_allocator(e) };
    st = g4_json_parse_in(&doc, &arena, tools, len > 0 ? len : strlen(tools), "tools", &halt, err);
    if (st == G4_OK) st = g4_grammar_tools(out, arena.a, g4_engine_tokenizer(e), doc, only, &halt, err);
    g4_arena_free(&arena);
    return st;
}
