/* reply.c - answers: what a model writes to what it says. A g4_response takes the tokens of one answer apart, to
 * thoughts, text and tool calls, and the calls, which the family writes in a syntax of its own, to JSON. Neither reader
 * ever refuses anything: models forget markers, commas and brackets, and what they meant is still clear. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <string.h>

/* ---- Calls: what a model writes between the markers to JSON ----------------------------------------
 *
 * In: call:NAME{key:<|"|>text<|"|>,n:1,list:[true,{a:null}]}, where <|"|> is a control token (its places are given).
 * Out: the name, and the arguments as one JSON object. Models also write key=value, plain JSON, single quotes, and
 * forget commas and closing brackets. This reader takes all of it and never fails: what has no sense as JSON becomes a
 * string.
 *
 * A call that is still being written is read too, for those who want it as it comes. What the reader has given out
 * before it first looked at the end of the text is what it will give out, whatever follows. */

#define G4_CALL_DEPTH 64

typedef struct {
    const char *s;
    size_t n, pos;
    const size_t *quotes; /* offsets of the quoting control token, ascending */
    size_t n_quotes;
    size_t next_quote; /* index of the first of them at or after pos */
    int closed;        /* the list or object that was read last had its closing bracket */
    int is_whole;      /* the call is put in parentheses, and whole */
    g4_buf *out;
    int has_met_end; /* it has looked at the end of the text, and of what it gave out before that ... */
    size_t n_sure;   /* ... there are so many bytes */
    int is_named;    /* it had the name by then */
    size_t string;   /* where the text of a string begins, without an end, that comes behind those; 0: there is none */
} g4_call_reader;

/* The reader looks at i: is there something? What it does when there is nothing may be wrong once more is written. */
static int g4_call_has(g4_call_reader *r, size_t i)
{
    if (i < r->n) return 1;
    if (!r->has_met_end) r->n_sure = r->out->len;
    r->has_met_end = 1;
    return 0;
}

/* Is there a quoting control token here? */
static int g4_call_at_quote(g4_call_reader *r)
{
    while (r->next_quote < r->n_quotes && r->quotes[r->next_quote] < r->pos) r->next_quote++;
    return g4_call_has(r, r->pos) && r->next_quote < r->n_quotes && r->quotes[r->next_quote] == r->pos;
}

/* The character that comes next; -1 at the end. */
static int g4_call_peek(g4_call_reader *r) { return g4_call_has(r, r->pos) ? (unsigned char)r->s[r->pos] : -1; }

static void g4_call_skip_blanks(g4_call_reader *r)
{
    r->pos = g4_skip_blanks(r->s, r->n, r->pos);
    g4_call_has(r, r->pos);
}

/* The text from `from` to pos, trimmed, as a JSON string. */
static void g4_call_put_trimmed(g4_call_reader *r, size_t from)
{
    const char *s = r->s + from;
    size_t n = r->pos - from;
    g4_py_strip(&s, &n);
    g4_json_quote(r->out, s, n);
}

/* Text up to the next control token, which is passed. Without one: to the end. */
static void g4_call_control_string(g4_call_reader *r)
{
    const size_t quote = strlen(G4_QUOTE), from = r->pos + quote;
    const size_t to = r->next_quote + 1 < r->n_quotes ? r->quotes[r->next_quote + 1] : r->n;
    if (to == r->n && !r->has_met_end) r->string = from;
    g4_call_has(r, to);
    g4_json_quote(r->out, r->s + from, to - from);
    r->pos = to < r->n ? to + quote : r->n;
}

/* The escape whose backslash is at pos, into t; what is none stays as it is. */
static void g4_call_escape(g4_call_reader *r, g4_buf *t)
{
    uint32_t cp;
    char utf8[4];
    const char letter = r->s[r->pos + 1], value = g4_json_unescape(letter);
    const size_t used = g4_json_unescape_unicode(r->s + r->pos, r->n - r->pos, &cp);
    if (used > 0) {
        if (cp >= 0xd800 && cp <= 0xdfff) cp = 0xfffd;
        g4_buf_add(t, utf8, g4_utf8_encode(cp, utf8));
        r->pos += used;
        return;
    }
    if (value != '\0')
        g4_buf_add(t, &value, 1);
    else if (letter == '\'')
        g4_buf_add(t, &letter, 1);
    else
        g4_buf_add(t, r->s + r->pos, 2);
    r->pos += 2;
}

/* "..." or '...' with JSON's escapes (and \'); a missing end is the end of the call. */
static void g4_call_quoted_string(g4_call_reader *r)
{
    const char mark = r->s[r->pos++];
    g4_buf t = { .a = r->out->a };
    while (g4_call_has(r, r->pos) && r->s[r->pos] != mark) {
        if (r->s[r->pos] == '\\' && r->pos + 1 < r->n)
            g4_call_escape(r, &t);
        else
            g4_buf_add(&t, r->s + r->pos++, 1);
    }
    if (r->pos < r->n) r->pos++;
    g4_json_quote(r->out, t.data == NULL ? "" : t.data, t.len);
    if (t.failed) r->out->failed = 1;
    g4_buf_free(&t);
}

static int g4_call_is_key_char(char ch)
{
    return g4_is_letter(ch) || g4_is_digit(ch) || g4_is_one_of("_-.$", ch) || ((unsigned char)ch & 0x80) != 0;
}

/* Does a `key:` or `key=` begin at i? Then a new member begins there. */
static int g4_call_is_key(g4_call_reader *r, size_t i)
{
    char mark = '\0';
    i = g4_skip_blanks(r->s, r->n, i);
    if (g4_call_has(r, i) && (r->s[i] == '"' || r->s[i] == '\'')) mark = r->s[i++];
    const size_t from = i;
    while (g4_call_has(r, i) && (mark != '\0' ? r->s[i] != mark : g4_call_is_key_char(r->s[i]))) i++;
    if (i == from) return 0;
    if (mark != '\0') i++;
    while (g4_call_has(r, i) && r->s[i] == ' ') i++;
    if (!g4_call_has(r, i) || (r->s[i] != ':' && r->s[i] != '=')) return 0;
    const int is_url =
        r->s[i] == ':' && g4_call_has(r, i + 1) && r->s[i + 1] == '/' && g4_call_has(r, i + 2) && r->s[i + 2] == '/';
    return !is_url;
}

/* The JSON literal that a bare word means, or NULL. */
static const char *g4_call_literal(const char *s, size_t n)
{
    static const char *const words[][2] = { { "true", "true" }, { "false", "false" }, { "null", "null" },
                                            { "True", "true" }, { "False", "false" }, { "None", "null" } };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (n == strlen(words[i][0]) && memcmp(s, words[i][0], n) == 0) return words[i][1];
    return NULL;
}

/* Where a key without quotes ends that begins at i. It may hold indices, as in page[size], which no list can be: what
 * separates a key from its value, or another index, follows them. */
static size_t g4_call_key_end(g4_call_reader *r, size_t i)
{
    const size_t end = r->next_quote < r->n_quotes ? r->quotes[r->next_quote] : r->n;
    for (;;) {
        while (i < end && !g4_is_one_of(":=,{}[]", r->s[i])) i++;
        g4_call_has(r, i);
        if (i == end || r->s[i] != '[') return i;
        size_t k = i + 1;
        while (k < end && g4_call_is_key_char(r->s[k])) k++;
        g4_call_has(r, k + 1);
        if (k + 1 >= end || r->s[k] != ']' || !g4_is_one_of(":=[", r->s[k + 1])) return i;
        i = k + 1;
    }
}

/* Does a key that need not be a word begin at i? */
static int g4_call_is_loose_key(g4_call_reader *r, size_t i)
{
    i = g4_call_key_end(r, i);
    return g4_call_has(r, i) && (r->s[i] == ':' || r->s[i] == '=');
}

/* Does a value without quotes that began at `from` end here? It does at a closing bracket, at a comma (inside an object
 * only where a key follows, so that `city:Paris, France` is one value), or where a number or literal is followed by a
 * key. */
static int g4_call_bare_ends(g4_call_reader *r, size_t from, int in_list)
{
    const char ch = r->s[r->pos];
    const size_t n = r->pos - from;
    if (g4_call_at_quote(r) || ch == '}' || ch == ']') return 1;
    if (ch != ',' && (!g4_is_blank(ch) || n == 0 || g4_is_blank(r->s[r->pos - 1]))) return 0;
    const int is_done = g4_json_is_number(r->s + from, n) || g4_call_literal(r->s + from, n) != NULL;
    if (ch != ',') return is_done && (in_list || g4_call_is_key(r, r->pos));
    if (in_list || g4_call_is_key(r, r->pos + 1) || (is_done && g4_call_is_loose_key(r, r->pos + 1))) return 1;
    const size_t i = g4_skip_blanks(r->s, r->n, r->pos + 1);
    return !g4_call_has(r, i) || r->s[i] == '}' || r->s[i] == ']' ||
           (r->next_quote < r->n_quotes && r->quotes[r->next_quote] == i);
}

static void g4_call_bare(g4_call_reader *r, int in_list)
{
    const size_t from = r->pos;
    while (g4_call_has(r, r->pos) && !g4_call_bare_ends(r, from, in_list)) r->pos++;
    const char *s = r->s + from;
    size_t n = r->pos - from;
    g4_py_strip(&s, &n);
    const char *literal = g4_call_literal(s, n);
    if (literal != NULL)
        g4_buf_str(r->out, literal);
    else if (g4_json_is_number(s, n))
        g4_buf_add(r->out, s, n);
    else
        g4_json_quote(r->out, s, n);
}

/* The key of a member and what separates it from its value; returns 0 if it stands alone. */
static int g4_call_key(g4_call_reader *r)
{
    int ch = g4_call_peek(r);
    if (g4_call_at_quote(r)) {
        g4_call_control_string(r);
    } else if (ch == '"' || ch == '\'') {
        g4_call_quoted_string(r);
    } else {
        const size_t from = r->pos;
        r->pos = g4_call_key_end(r, from);
        g4_call_put_trimmed(r, from);
    }
    g4_call_skip_blanks(r);
    if (g4_call_at_quote(r)) return 0;
    ch = g4_call_peek(r);
    if (ch != ':' && ch != '=') return ch == '{' || ch == '[';
    r->pos++;
    if (ch == ':' && g4_call_peek(r) == '=') r->pos++;
    return 1;
}

static void g4_call_value(g4_call_reader *r, int depth, int in_list);

/* Members or elements up to the closing bracket, which is passed; the opening one is. */
static void g4_call_members(g4_call_reader *r, int depth, int is_list)
{
    int is_next = 0;
    g4_buf_str(r->out, is_list ? "[" : "{");
    for (;;) {
        while (!g4_call_at_quote(r) && r->pos < r->n && (g4_is_blank(r->s[r->pos]) || g4_is_one_of(",;", r->s[r->pos])))
            r->pos++;
        const int ch = g4_call_peek(r);
        r->closed = !g4_call_at_quote(r) && (ch == '}' || ch == ']');
        if (r->closed) r->pos++;
        if (r->closed || ch < 0) break;
        if (is_next) g4_buf_str(r->out, ",");
        is_next = 1;
        const int has_value = is_list || g4_call_key(r);
        if (!is_list) g4_buf_str(r->out, ":");
        if (!has_value) {
            g4_buf_str(r->out, "null");
            continue;
        }
        const size_t before = r->pos;
        g4_call_value(r, depth + 1, is_list);
        if (is_list && r->pos == before && r->pos < r->n) r->pos++; /* never stand still */
    }
    g4_buf_str(r->out, is_list ? "]" : "}");
}

static void g4_call_value(g4_call_reader *r, int depth, int in_list)
{
    g4_call_skip_blanks(r);
    const int ch = g4_call_peek(r);
    if (g4_call_at_quote(r)) {
        g4_call_control_string(r);
    } else if ((ch == '{' || ch == '[') && depth < G4_CALL_DEPTH) {
        r->pos++;
        g4_call_members(r, depth, ch == '[');
    } else if (ch == '"' || ch == '\'') {
        g4_call_quoted_string(r);
    } else if (ch < 0 || ch == ',' || ch == '}' || ch == ']') {
        g4_buf_str(r->out, "null"); /* key: and nothing */
    } else {
        g4_call_bare(r, in_list);
    }
}

/* The first of these members, of a kind if it is not null; NULL: there is none. */
static const g4_json *g4_call_member(const g4_json *call, const char *const names[4], int is_text)
{
    for (int i = 0; i < 4; i++) {
        const g4_json *v = g4_json_given(call, names[i]);
        if (v != NULL && (!is_text || v->kind == G4_JSON_STRING)) return v;
    }
    return NULL;
}

/* What stands under a member for the arguments, as an object: what it is, what its text says, or it under its name. */
static void g4_call_put_arguments(g4_arena *m, const g4_json *given, g4_buf *arguments)
{
    g4_json value = given != NULL ? *given : (g4_json) { .kind = G4_JSON_NULL };
    if (value.kind == G4_JSON_STRING && g4_call_arguments(m, &value, NULL, NULL) != G4_OK) arguments->failed = 1;
    if (value.kind == G4_JSON_OBJECT) {
        g4_json_write(arguments, &value);
        return;
    }
    g4_buf_str(arguments, "{");
    if (value.kind != G4_JSON_NULL) {
        g4_json_quote(arguments, given->key, given->key_len);
        g4_buf_str(arguments, ":");
        g4_json_write(arguments, &value);
    }
    g4_buf_str(arguments, "}");
}

/* A call that is JSON with the name in it, as other families write them: {"name": ..., "arguments": {...}}, or that
 * under "function". Without a name all of it is arguments. */
static void g4_call_unwrap(g4_arena *m, const g4_json *call, g4_buf *name, g4_buf *arguments)
{
    static const char *const names[] = { "name", "function", "tool", "tool_name" };
    static const char *const members[] = { "arguments", "parameters", "args", "input" };
    const g4_json *inner = g4_json_get(call, "function");
    if (g4_json_is(inner, G4_JSON_OBJECT)) call = inner;
    const g4_json *said = g4_call_member(call, names, 1);
    if (said != NULL) {
        g4_buf_add(name, said->text, said->text_len);
        g4_call_put_arguments(m, g4_call_member(call, members, 0), arguments);
    } else if (g4_json_is(call, G4_JSON_OBJECT)) {
        g4_json_write(arguments, call);
    } else {
        g4_buf_str(arguments, "{}");
    }
}

/* What stands between the markers without a name in front, from its bracket on: a list of calls or one after the other,
 * which becomes a list. NULL: no memory. */
static const g4_json *g4_call_nameless(g4_call_reader *r, g4_arena *m)
{
    g4_buf json = { .a = r->out->a }, *const arguments = r->out;
    const int is_list = g4_call_peek(r) == '[';
    g4_json *root = NULL;
    r->out = &json;
    g4_buf_str(&json, is_list ? "" : "[");
    do {
        r->pos++;
        if (json.len > 1) g4_buf_str(&json, ",");
        g4_call_members(r, 0, is_list);
        while (r->pos < r->n && (g4_is_blank(r->s[r->pos]) || g4_is_one_of(",;", r->s[r->pos]))) r->pos++;
    } while (!is_list && r->closed && !g4_call_at_quote(r) && g4_call_peek(r) == '{');
    g4_buf_str(&json, is_list ? "" : "]");
    r->out = arguments;
    if (!json.failed) g4_json_parse_in(&root, m, json.data, json.len, NULL, NULL, NULL);
    g4_buf_free(&json);
    return root;
}

/* The name of a call and its opening brackets, behind which the reader is left. */
static void g4_call_head(g4_call_reader *r, g4_buf *name)
{
    const char *s = r->s;
    const size_t begun = r->n - r->pos < 5 ? r->n - r->pos : 5; /* the end may stand inside of it */
    g4_call_has(r, r->pos + 4);
    if (memcmp(s + r->pos, "call:", begun) == 0) r->pos += begun;
    g4_call_skip_blanks(r);
    const int is_fenced = g4_call_has(r, r->pos + 3) && memcmp(s + r->pos, "```", 3) == 0;
    const size_t from = r->pos;
    while (g4_call_has(r, r->pos) && !g4_call_at_quote(r) && !g4_is_one_of("{(\n", s[r->pos]) &&
           !(s[r->pos] == '[' && r->pos == from))
        r->pos++;
    const char *word = s + from;
    size_t len = is_fenced ? 0 : r->pos - from; /* ```json */
    g4_py_strip(&word, &len);
    g4_buf_add(name, word, len);
    g4_call_skip_blanks(r);
    if (g4_call_peek(r) != '(') return;
    r->pos++; /* f(a=1), which ends where the text does */
    g4_call_has(r, r->n);
    while (r->n > r->pos && (s[r->n - 1] == ' ' || s[r->n - 1] == '\n')) r->n--;
    r->is_whole = r->n > r->pos && s[r->n - 1] == ')';
    if (r->is_whole) r->n--;
    g4_call_skip_blanks(r);
}

/* Name and arguments (one JSON object) of a call, both appended. Returns 0, and nothing of its members was read, if it
 * has no name in front. */
static int g4_call_read(g4_call_reader *r, g4_buf *name)
{
    g4_call_skip_blanks(r);
    g4_call_head(r, name);
    const int bracket = g4_call_at_quote(r) ? 0 : g4_call_peek(r);
    if (name->len == 0 && (bracket == '{' || bracket == '[')) return 0;
    r->is_named = name->len > 0 && !r->has_met_end;
    for (int i = 0; i < 2 && !g4_call_at_quote(r) && g4_call_peek(r) == '{'; i++) { /* f{{a:1}} too */
        r->pos++;
        g4_call_skip_blanks(r);
    }
    g4_call_members(r, 0, 0);
    return 1;
}

/* ---- Answers: tokens to thoughts, text and calls ----------------------------------------------------
 *
 * A machine over control tokens and bytes. Outside every marker it is in TEXT; <|channel> leads through the channel's
 * name to THOUGHT, <|tool_call> to CALL. What the family produces without its partner is taken as it is meant: a
 * thought that the prompt has opened, an empty channel, a closing marker alone (nothing), a call or thought that the
 * end cuts off (closed there, and told as incomplete). Markers are never text. Text is trimmed as the template will
 * trim it in the next turn, a thought loses the line feed before its closing marker.
 *
 * A token is taken whole or not at all: room for all that it can lead to is made before anything changes or is told. */

typedef enum { G4_IN_TEXT, G4_IN_NAME, G4_IN_THOUGHT, G4_IN_CALL, G4_IN_NOTHING } g4_response_state;

typedef struct {
    g4_part_kind kind;
    g4_buf text, name, raw;
    int has_end;    /* of a call: its arguments have theirs */
    int incomplete; /* as in g4_part */
} g4_response_part;

/* What ends the thing that is being read: its own marker, another one where the model forgot it, or nothing at all. */
typedef enum { G4_ENDS_ITSELF, G4_ENDS_BEFORE_OTHER, G4_ENDS_CUT } g4_response_ending;

struct g4_response {
    const g4_allocator *a;
    const g4_engine *e;    /* whose stop ids end the answer; may be NULL: none do but the markers */
    const g4_tokenizer *t; /* may be NULL: fed with bytes only */
    g4_controls controls;
    g4_response_state state;
    g4_utf8 utf8;
    g4_buf held; /* TEXT: white space that is dropped if nothing follows; THOUGHT: a line feed; NAME: the name so far */
    const char *const *stops; /* strings that end the answer where its text has them */
    int n_stops;
    int stopped;    /* which of them did; -1: none */
    g4_buf ahead;   /* TEXT: what may be the beginning of one */
    g4_buf call;    /* bytes of the call being read */
    size_t *quotes; /* where <|"|> stands in it */
    int n_quotes, cap_quotes;
    g4_response_part *parts;
    int n_parts, cap_parts;
    int n_next;  /* behind the last part stand so many that are not used yet */
    int n_calls; /* of them the first hold what the call that has been read says: more than one where it is a list */
    int streams_calls; /* a call is told while it is read: */
    g4_buf name, told; /* its name, which was told if it is not empty, and arguments, */
    size_t n_told;     /* so many bytes of which were told, */
    size_t n_read;     /* when it was read last, so many bytes of it were there, */
    size_t string;     /* and from here on they are of a string without an end; 0: they are not */
    int open;          /* the last part goes on */
    g4_part *views;    /* of the finished answer */
    g4_part_fn fn;
    void *user;
    int stop, finished;
    int n_thought_tokens;
    int cut;          /* the answer did not end where it is to be finished */
    int failed;       /* there was no memory for what came last ... */
    g4_token missing; /* ... which was this token, or -1: bytes */
    int busy;         /* a call is in, which may be telling the caller something */
};

/* ---- Room for what comes -------------------------------------------------------------------------- */

/* Room for n more bytes; what there is ends with a NUL. Returns 0 when out of memory, and the buffer is as it was. */
static int g4_response_room(g4_buf *b, size_t n)
{
    size_t cap;
    if (g4_add_overflows(b->len, n, &cap) || g4_add_overflows(cap, 1, &cap)) return 0;
    if (cap > b->cap) {
        cap = cap < 64 ? 64 : cap > SIZE_MAX / 2 ? cap : cap + cap / 2;
        char *data = g4_realloc(b->a, b->data, cap, 1);
        if (data == NULL) return 0;
        b->data = data;
        b->cap = cap;
    }
    b->data[b->len] = '\0';
    return 1;
}

/* The k-th part behind the last one, all before it being there, for n bytes of text; NULL: no memory. */
static g4_response_part *g4_response_next(g4_response *r, int k, size_t n)
{
    if (k == r->n_next) {
        g4_response_part *parts = g4_array_grow(r->a, r->parts, r->n_parts + k, &r->cap_parts, sizeof *parts);
        if (parts == NULL) return NULL;
        r->parts = parts;
        parts[r->n_parts + k] =
            (g4_response_part) { .text = { .a = r->a }, .name = { .a = r->a }, .raw = { .a = r->a } };
        r->n_next++;
    }
    g4_response_part *p = &r->parts[r->n_parts + k];
    return g4_response_room(&p->text, n) ? p : NULL;
}

/* A part behind the last one for the next call that has been read; NULL: no memory. */
static g4_response_part *g4_response_next_call(g4_response *r)
{
    g4_response_part *p = g4_response_next(r, r->n_calls, 0);
    if (p != NULL) p->name.len = p->text.len = 0;
    r->n_calls += p != NULL;
    return p;
}

/* The call of a part is there. Returns 0 when it is not: there was no memory. */
static int g4_response_end_call(g4_response_part *p, const g4_call_reader *c)
{
    g4_buf_add(&p->name, "", 0); /* an empty name is a string too */
    p->has_end = c->closed || c->is_whole;
    const int ok = !p->name.failed && !p->text.failed;
    if (!ok) {
        g4_buf_free(&p->name);
        g4_buf_free(&p->text);
    }
    return ok;
}

/* Calls in a list become parts; one that holds none is a call without a name. Returns 0 when out of memory. */
static int g4_response_read_list(g4_response *r, g4_call_reader *c, g4_response_part *p)
{
    g4_arena m = { .a = r->a };
    const g4_json *list = g4_call_nameless(c, &m);
    int ok = list != NULL;
    for (const g4_json *call = ok ? list->child : NULL; call != NULL && ok; call = call->next) {
        if (call->kind != G4_JSON_OBJECT) continue;
        if (p == NULL) p = g4_response_next_call(r);
        if (p != NULL) g4_call_unwrap(&m, call, &p->name, &p->text);
        ok = p != NULL && g4_response_end_call(p, c);
        p = NULL;
    }
    if (ok && p != NULL) {
        g4_buf_str(&p->text, "{}");
        ok = g4_response_end_call(p, c);
    }
    g4_arena_free(&m);
    return ok;
}

/* What the call that has been read says, in parts behind the last one. Returns 0 when out of memory. */
static int g4_response_read_call(g4_response *r)
{
    r->n_calls = 0;
    g4_response_part *p = g4_response_next_call(r);
    if (p == NULL) return 0;
    g4_call_reader c = {
        .s = r->call.data, .n = r->call.len, .quotes = r->quotes, .n_quotes = (size_t)r->n_quotes, .out = &p->text
    };
    return g4_call_read(&c, &p->name) ? g4_response_end_call(p, &c) : g4_response_read_list(r, &c, p);
}

/* Does this control token end what is being read as a call? */
static int g4_response_ends_call(const g4_response *r, g4_control control)
{
    return r->state == G4_IN_CALL &&
           (control == G4_CONTROL_CALL || control == G4_CONTROL_CALL_END || control == G4_CONTROL_CHANNEL ||
            control == G4_CONTROL_RESPONSE || control == G4_CONTROL_TURN || control == G4_CONTROL_TURN_END);
}

/* Room for all that n bytes or a control token can lead to. Returns 0 when out of memory. */
static int g4_response_prepare(g4_response *r, g4_control control, size_t n)
{
    enum { HELD = 8 }; /* bytes of a character that may be waiting, and more */
    size_t all;
    if (g4_add_overflows(n, HELD + sizeof G4_QUOTE, &n) || g4_add_overflows(n, r->ahead.len, &n)) return 0;
    if (g4_add_overflows(n, r->held.len, &all)) return 0;
    if (r->n_stops > 0 && !g4_response_room(&r->ahead, n)) return 0;
    if (!g4_response_room(&r->held, n) || g4_response_next(r, 0, all) == NULL) return 0;
    if (r->open && r->n_parts > 0 && !g4_response_room(&r->parts[r->n_parts - 1].text, all)) return 0;
    if (r->state != G4_IN_CALL) return 1;
    size_t *quotes = g4_array_grow(r->a, r->quotes, r->n_quotes, &r->cap_quotes, sizeof *quotes);
    if (quotes == NULL) return 0;
    r->quotes = quotes;
    return g4_response_room(&r->call, n) && (!g4_response_ends_call(r, control) || g4_response_read_call(r));
}

/* ---- Parts ------------------------------------------------------------------------------------------ */

/* The last part, if it goes on and is of this kind; else NULL. */
static g4_response_part *g4_response_going_on(const g4_response *r, g4_part_kind kind)
{
    g4_response_part *last = r->open && r->n_parts > 0 ? &r->parts[r->n_parts - 1] : NULL;
    return last != NULL && last->kind == kind ? last : NULL;
}

/* The part that new text of this kind belongs to. */
static g4_response_part *g4_response_part_of(g4_response *r, g4_part_kind kind)
{
    g4_response_part *p = g4_response_going_on(r, kind);
    if (p != NULL) return p;
    p = &r->parts[r->n_parts++];
    p->kind = kind;
    r->n_next--;
    r->open = 1;
    return p;
}

static g4_part g4_response_view(const g4_response_part *p)
{
    return (g4_part) { .kind = p->kind,
                       .text = p->text.data,
                       .text_len = p->text.len,
                       .name = p->name.data,
                       .raw = p->raw.data,
                       .raw_len = p->raw.len,
                       .incomplete = p->incomplete };
}

/* Tell the caller of something new in the last part. */
static void g4_response_tell(g4_response *r, const g4_part *delta)
{
    if (r->fn != NULL && r->fn(r->user, r->n_parts - 1, delta) != 0) r->stop = 1;
}

/* ---- Calls as they are written ---------------------------------------------------------------------- */

/* Bytes at the beginning of a string's text that stay what they are, whatever follows them: whole characters, and what
 * can be none. */
static size_t g4_response_sure_text(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint32_t cp;
        const size_t size = g4_utf8_decode(s + i, n - i, &cp);
        const unsigned char lead = (unsigned char)s[i];
        if (size == 0 && n - i < (lead >= 0xf0 ? 4u : lead >= 0xe0 ? 3u : lead >= 0xc0 ? 2u : 1u)) break;
        i += size > 0 ? size : 1;
    }
    return i;
}

/* More of the text of a string that has no end yet, as JSON, behind what is to be told. */
static void g4_response_tell_string(g4_response *r)
{
    const char *s = r->call.data + r->string;
    const size_t n = g4_response_sure_text(s, r->call.len - r->string), from = r->told.len;
    g4_json_quote(&r->told, s, n);
    if (r->told.failed) return;
    r->told.len -= 1; /* without the quotes around it */
    memmove(r->told.data + from, r->told.data + from + 1, r->told.len - from);
    r->told.len -= 1;
    r->told.data[r->told.len] = '\0';
    r->string += n;
}

/* What is sure of the call so far goes into `told`. */
static void g4_response_read_sure(g4_response *r)
{
    g4_buf name = { .a = r->a };
    g4_call_reader c = {
        .s = r->call.data, .n = r->call.len, .quotes = r->quotes, .n_quotes = (size_t)r->n_quotes, .out = &r->told
    };
    r->n_read = r->call.len;
    r->told.len = 0;
    r->string = 0;
    const int is_read = g4_call_read(&c, &name);
    const int is_sure =
        is_read && c.is_named && !name.failed && !r->told.failed && memchr(name.data, '\0', name.len) == NULL;
    if (is_sure && r->name.len == 0) {
        g4_buf_free(&r->name);
        r->name = name;
    } else {
        g4_buf_free(&name);
    }
    r->told.len = !is_sure ? 0 : c.has_met_end ? c.n_sure : r->told.len;
    if (!is_sure || c.string == 0) return;
    g4_buf_str(&r->told, "\"");
    r->string = c.string;
    g4_response_tell_string(r);
}

static void g4_response_tell_piece(g4_response *r, const char *text, size_t n)
{
    const g4_part delta = { .kind = G4_PART_TOOL_CALL, .text = text, .text_len = n, .name = r->name.data };
    if (r->fn(r->user, r->n_parts, &delta) != 0) r->stop = 1;
}

/* Tell what has become sure of the call that is being read. Where there is no memory for it, it is told at the end. To
 * read all of it again for each token would take too long once it is large. */
static void g4_response_tell_call(g4_response *r, int has_quote)
{
    enum { PART = 256 };
    const int was_named = r->name.len > 0;
    if (!r->streams_calls || r->fn == NULL) return;
    if (r->string > 0 && !has_quote) {
        g4_response_tell_string(r);
    } else {
        if (r->call.len - r->n_read < r->call.len / PART) {
            r->string = 0;
            return;
        }
        g4_response_read_sure(r);
    }
    if (r->told.failed) {
        g4_buf_free(&r->told);
        r->told.failed = 0;
        r->string = 0;
        return;
    }
    if (r->name.len > 0 && !was_named) g4_response_tell_piece(r, "", 0);
    if (r->told.len <= r->n_told) return;
    const size_t from = r->n_told;
    r->n_told = r->told.len;
    g4_response_tell_piece(r, r->told.data + from, r->told.len - from);
}

/* ---- Parts as they come ----------------------------------------------------------------------------- */

static void g4_response_add(g4_response *r, g4_part_kind kind, const char *s, size_t n)
{
    if (n == 0) return;
    g4_response_part *p = g4_response_part_of(r, kind);
    g4_buf_add(&p->text, s, n);
    /* the delta is the tail of the part's own text, which is NUL-terminated */
    const g4_part delta = { .kind = kind, .text = p->text.data + p->text.len - n, .text_len = n };
    g4_response_tell(r, &delta);
}

static void g4_response_flush_held(g4_response *r, g4_part_kind kind)
{
    g4_response_add(r, kind, r->held.data, r->held.len);
    r->held.len = 0;
}

/* Whole characters of text: white space waits for what follows it, and is dropped at the start of a part. */
static void g4_response_text(g4_response *r, const char *s, size_t n)
{
    size_t end = 0; /* behind the last character that is not space */
    for (size_t i = 0; i < n;) {
        uint32_t cp = 0;
        size_t size = g4_utf8_decode(s + i, n - i, &cp);
        const int is_space = size > 0 && g4_py_is_space(cp);
        if (size == 0) size = 1;
        if (!is_space && end == 0 && g4_response_going_on(r, G4_PART_TEXT) == NULL) {
            s += i;
            n -= i;
            i = 0;
            r->held.len = 0;
        }
        i += size;
        if (!is_space) end = i;
    }
    if (end > 0) {
        g4_response_flush_held(r, G4_PART_TEXT);
        g4_response_add(r, G4_PART_TEXT, s, end);
    }
    g4_buf_add(&r->held, s + end, n - end);
}

/* Where the first stop string begins in the text ahead, and which it is; -1: there is none, and the place is that of
 * the first byte that may begin one. */
static int g4_response_find_stop(const g4_response *r, size_t *at)
{
    size_t first = r->ahead.len;
    for (*at = 0; *at < r->ahead.len; ++*at) {
        const size_t rest = r->ahead.len - *at;
        for (int i = 0; i < r->n_stops; i++) {
            const size_t n = strlen(r->stops[i]);
            if (n == 0 || memcmp(r->ahead.data + *at, r->stops[i], rest < n ? rest : n) != 0) continue;
            if (rest >= n) return i;
            if (*at < first) first = *at;
        }
    }
    *at = first;
    return -1;
}

/* The same up to the first stop string. White space in front of an answer can be none: it is not of the answer. */
static void g4_response_say(g4_response *r, const char *s, size_t n)
{
    size_t at;
    if (r->n_stops == 0) {
        g4_response_text(r, s, n);
        return;
    }
    const char *word = s;
    size_t n_word = n;
    g4_py_strip(&word, &n_word);
    if (r->ahead.len == 0 && g4_response_going_on(r, G4_PART_TEXT) == NULL) {
        if (n_word == 0) return;
        n -= (size_t)(word - s);
        s = word;
    }
    g4_buf_add(&r->ahead, s, n);
    r->stopped = g4_response_find_stop(r, &at);
    g4_response_text(r, r->ahead.data, at);
    r->ahead.len -= at;
    memmove(r->ahead.data, r->ahead.data + at, r->ahead.len);
}

/* Whole characters of a thought: a line feed at the end waits. */
static void g4_response_thought(g4_response *r, const char *s, size_t n)
{
    if (n == 0) return;
    g4_response_flush_held(r, G4_PART_THOUGHT);
    const size_t n_held = s[n - 1] == '\n';
    g4_response_add(r, G4_PART_THOUGHT, s, n - n_held);
    g4_buf_add(&r->held, s + n - n_held, n_held);
}

/* One byte of a channel's name, which is a word on a line of its own. Which one makes no difference: what is in a
 * channel is not the answer. When it is no such word, it is thought already. Returns 1 if the byte is used up. */
static size_t g4_response_name(g4_response *r, char ch)
{
    if ((g4_is_letter(ch) || ch == '_' || ch == '-') && r->held.len < 16) {
        g4_buf_add(&r->held, &ch, 1);
        return 1;
    }
    if (ch == '\n' || (r->held.len == 7 && memcmp(r->held.data, "thought", 7) == 0)) r->held.len = 0;
    r->state = G4_IN_THOUGHT; /* what is held now comes first */
    return ch == '\n';
}

static void g4_response_bytes(g4_response *r, const char *s, size_t n)
{
    enum { AT_ONCE = 256 };
    char out[AT_ONCE + 4];
    while (n > 0 && r->state != G4_IN_NOTHING && r->stopped < 0) {
        size_t size = n < AT_ONCE ? n : AT_ONCE;
        if (r->state == G4_IN_NAME) {
            size = g4_response_name(r, s[0]);
        } else if (r->state == G4_IN_CALL) {
            g4_buf_add(&r->call, s, size);
            g4_response_tell_call(r, 0);
        } else {
            const size_t whole = g4_utf8_push(&r->utf8, s, size, out);
            if (r->state == G4_IN_TEXT)
                g4_response_say(r, out, whole);
            else
                g4_response_thought(r, out, whole);
        }
        s += size;
        n -= size;
    }
}

/* The call that has been read becomes a part, or several: names and arguments are there, and the first has what was
 * written. One that lacks its marker is whole when the model went on behind the end of its arguments; one without a
 * name can never be carried out. */
static void g4_response_call(g4_response *r, g4_response_ending ending)
{
    for (int i = 0; i < r->n_calls; i++) {
        r->open = 0;
        g4_response_part *p = g4_response_part_of(r, G4_PART_TOOL_CALL);
        const int is_whole = ending == G4_ENDS_ITSELF || (ending == G4_ENDS_BEFORE_OTHER && p->has_end);
        p->incomplete = !is_whole || p->name.len == 0 || memchr(p->name.data, '\0', p->name.len) != NULL;
        if (i == 0) {
            p->raw = r->call;
            r->call = (g4_buf) { .a = r->a };
        }
        g4_part rest = g4_response_view(p); /* all of it, where nothing was told before */
        const size_t n_told = i == 0 ? g4_min_size(r->n_told, rest.text_len) : 0;
        rest.text += n_told;
        rest.text_len -= n_told;
        g4_response_tell(r, &rest);
    }
}

/* The text or thought that goes on is cut off here. */
static void g4_response_mark_cut(g4_response *r)
{
    g4_response_part *p = r->open && r->n_parts > 0 ? &r->parts[r->n_parts - 1] : NULL;
    if (p == NULL || p->kind == G4_PART_TOOL_CALL || (p->kind == G4_PART_TEXT && !r->cut)) return;
    p->incomplete = 1;
    const g4_part delta = { .kind = p->kind, .text = p->text.data + p->text.len, .incomplete = 1 };
    g4_response_tell(r, &delta);
}

/* The state ends here: give out what is held, or what the call says. Whether text has its end the reader cannot see:
 * it has, unless the caller says that the answer was cut. */
static void g4_response_leave(g4_response *r, g4_response_state next, g4_response_ending ending)
{
    char out[8];
    const size_t n = g4_utf8_push(&r->utf8, NULL, 0, out); /* an unfinished character stays as it is */
    if (r->state == G4_IN_TEXT && r->stopped < 0) {
        g4_response_say(r, out, n);
        if (r->stopped < 0 && r->ahead.len > 0) g4_response_text(r, r->ahead.data, r->ahead.len);
    }
    r->ahead.len = 0;
    if (r->state == G4_IN_THOUGHT) g4_response_thought(r, out, n);
    if (r->state == G4_IN_CALL) g4_response_call(r, ending);
    if (ending == G4_ENDS_CUT) g4_response_mark_cut(r);
    r->call.len = r->name.len = r->told.len = 0;
    r->n_told = r->n_read = r->string = 0;
    r->n_quotes = 0;
    r->held.len = 0;
    r->open = 0;
    r->state = next;
}

/* <|channel>: in a thought, which goes on behind the name. */
static void g4_response_channel(g4_response *r)
{
    char out[8];
    if (r->state == G4_IN_NAME) return;
    if (r->state != G4_IN_THOUGHT) {
        g4_response_leave(r, G4_IN_NAME, G4_ENDS_BEFORE_OTHER);
        return;
    }
    g4_response_thought(r, out, g4_utf8_push(&r->utf8, NULL, 0, out));
    g4_response_flush_held(r, G4_PART_THOUGHT);
    r->state = G4_IN_NAME;
}

/* <|"|> in a call. */
static void g4_response_quote(g4_response *r)
{
    r->quotes[r->n_quotes++] = r->call.len;
    g4_buf_str(&r->call, G4_QUOTE);
    g4_response_tell_call(r, 1);
}

/* Bytes of text or a control token, for which there is room. */
static void g4_response_take(g4_response *r, g4_control control, const char *bytes, size_t n)
{
    switch (control) {
    case G4_CONTROL_NONE: g4_response_bytes(r, bytes, n); break;
    case G4_CONTROL_CHANNEL: g4_response_channel(r); break;
    case G4_CONTROL_CHANNEL_END:
        if (r->state == G4_IN_THOUGHT || r->state == G4_IN_NAME) g4_response_leave(r, G4_IN_TEXT, G4_ENDS_ITSELF);
        break;
    case G4_CONTROL_CALL: g4_response_leave(r, G4_IN_CALL, G4_ENDS_BEFORE_OTHER); break;
    case G4_CONTROL_CALL_END:
        if (r->state == G4_IN_CALL) g4_response_leave(r, G4_IN_TEXT, G4_ENDS_ITSELF);
        break;
    case G4_CONTROL_QUOTE:
        if (r->state == G4_IN_CALL) g4_response_quote(r);
        break;
    /* Whatever follows one of these is not this answer. */
    case G4_CONTROL_RESPONSE:
    case G4_CONTROL_TURN:
    case G4_CONTROL_TURN_END: g4_response_leave(r, G4_IN_NOTHING, G4_ENDS_BEFORE_OTHER); break;
    default: /* placeholders and the like: not text */ break;
    }
}

int g4_response_feed(g4_response *r, g4_control control, const char *bytes, size_t n)
{
    if (r->busy || r->failed || r->finished || r->stopped >= 0) return 1;
    if (r->state == G4_IN_NOTHING) return r->stop;
    if (!g4_response_prepare(r, control, n)) {
        r->failed = 1;
        return 1;
    }
    r->n_thought_tokens += control == G4_CONTROL_NONE && (r->state == G4_IN_THOUGHT || r->state == G4_IN_NAME);
    r->busy = 1;
    g4_response_take(r, control, bytes, n);
    r->busy = 0;
    return r->stop || r->stopped >= 0;
}

g4_status g4_response_stop_at(g4_response *r, const char *const *stop, int n, g4_error *err)
{
    if (r == NULL || (n > 0 && stop == NULL))
        return g4_fail(err, G4_ERR_ARGUMENT, "%s is NULL", r == NULL ? "response" : "stop");
    if (r->busy || r->finished || r->n_parts > 0 || r->state == G4_IN_NOTHING || r->ahead.len > 0)
        return g4_fail(err, G4_ERR_ARGUMENT, "this answer has begun: what ends it is said before");
    for (int i = 0; i < n; i++)
        if (stop[i] == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "stop string %d is NULL", i);
    r->stops = stop;
    r->n_stops = n > 0 ? n : 0;
    return G4_OK;
}

const char *g4_response_stop_string(const g4_response *r)
{
    return r != NULL && r->stopped >= 0 ? r->stops[r->stopped] : NULL;
}

void g4_response_stream_calls(g4_response *r)
{
    if (r != NULL) r->streams_calls = 1;
}

void g4_response_listen(g4_response *r, g4_part_fn part, void *user)
{
    r->fn = part;
    r->user = user;
}

int g4_response_push(g4_response *r, g4_token token)
{
    char piece[256];
    int special = 0;
    if (r == NULL || r->busy) return 1;
    if (r->t == NULL || token < 0 || (uint32_t)token >= r->t->n_vocab) return r->failed || r->stop;
    if (r->failed && token != r->missing) return 1;
    r->failed = 0;
    r->missing = -1;
    const size_t n = g4_tokenizer_piece(r->t, token, piece, &special);
    g4_control control = special ? g4_controls_find(&r->controls, token) : G4_CONTROL_NONE;
    if (special && control == G4_CONTROL_NONE)
        control = r->e != NULL && g4_token_is_stop(r->e, token) ? G4_CONTROL_TURN_END : G4_CONTROL_OTHER;
    const int stop = g4_response_feed(r, control, piece, n);
    if (r->failed) r->missing = token;
    return stop;
}

g4_status g4_response_new(g4_response **out, const g4_allocator *a, const g4_tokenizer *t, int in_thought,
                          g4_part_fn fn, void *user, g4_error *err)
{
    g4_response *r = g4_alloc(a, 1, sizeof *r);
    *out = r;
    if (r == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for an answer");
    r->a = a;
    r->t = t;
    r->state = in_thought ? G4_IN_THOUGHT : G4_IN_TEXT;
    r->held.a = r->call.a = r->ahead.a = r->name.a = r->told.a = a;
    r->stopped = -1;
    r->fn = fn;
    r->user = user;
    r->missing = -1;
    g4_controls_bind(&r->controls, t);
    return G4_OK;
}

g4_status g4_response_open(g4_response **out, const g4_engine *e, int in_thought, g4_part_fn fn, void *user,
                           g4_error *err)
{
    if (out == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    g4_status st = g4_engine_check(e, err);
    if (st != G4_OK) return st;
    st = g4_response_new(out, g4_engine_allocator(e), g4_engine_tokenizer(e), in_thought, fn, user, err);
    if (st == G4_OK) (*out)->e = e;
    return st;
}

void g4_response_cut(g4_response *r) { r->cut = 1; }

g4_status g4_response_finish(g4_response *r, g4_error *err)
{
    if (r == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "response is NULL");
    if (r->busy) return g4_fail(err, G4_ERR_ARGUMENT, "this answer is in a call: the one whose callback this is");
    if (r->finished) return G4_OK;
    if (r->failed) return g4_fail(err, G4_ERR_MEMORY, "no memory for the answer's text: its last token was not taken");
    g4_part *views = NULL;
    if (g4_response_prepare(r, G4_CONTROL_TURN_END, 0)) /* all parts that the end may make are there */
        views = g4_alloc(r->a, (size_t)r->n_parts + (size_t)r->n_next, sizeof *views);
    if (views == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for the answer's text");
    r->busy = 1;
    if (r->state != G4_IN_NOTHING) g4_response_leave(r, G4_IN_NOTHING, G4_ENDS_CUT);
    r->busy = 0;
    r->views = views;
    for (int i = 0; i < r->n_parts; i++) views[i] = g4_response_view(&r->parts[i]);
    r->finished = 1;
    return G4_OK;
}

const g4_part *g4_response_parts(const g4_response *r, int *n)
{
    const int is_there = r != NULL && r->finished;
    if (n != NULL) *n = is_there ? r->n_parts : 0;
    return is_there ? r->views : NULL;
}

int g4_response_thought_tokens(const g4_response *r) { return r != NULL ? r->n_thought_tokens : 0; }

void g4_response_close(g4_response *r)
{
    if (r == NULL || r->busy) return;
    const g4_allocator *a = r->a;
    for (int i = 0; i < r->n_parts + r->n_next; i++) {
        g4_buf_free(&r->parts[i].text);
        g4_buf_free(&r->parts[i].name);
        g4_buf_free(&r->parts[i].raw);
    }
    g4_free(a, r->parts);
    g4_free(a, r->views);
    g4_free(a, r->quotes);
    g4_buf_free(&r->held);
    g4_buf_free(&r->ahead);
    g4_buf_free(&r->call);
    g4_buf_free(&r->name);
    g4_buf_free(&r->told);
    g4_free(a, r);
}
