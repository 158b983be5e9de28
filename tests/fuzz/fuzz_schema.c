/* Fuzz JSON schemas: what compiles has masks without dead ends, what is written under it is JSON that is valid where
 * nothing was loosened, and the same schema compiled again accepts it, cut into other tokens. As the parameters of a
 * tool it makes calls that are read as such, with valid arguments. What does not compile says why.
 *
 * Byte 0 of the input: bit 0 strict or loosened, bit 1 whether the rest is the schema's text or choices of which one is
 * made, bit 2 the schema is that of a tool. Run from the repository root: grammars read
 * tests/data/tokenizer_small.g4. */
#include "walk.h"

#include "validate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { G4_FUZZ_WALKS = 3, G4_FUZZ_TOKENS = 40 };

/* ---- A schema out of choices ------------------------------------------------------------------------------ */

typedef struct {
    const uint8_t *data;
    size_t size, pos;
    g4_buf text;
} g4_choices;

static unsigned g4_choose(g4_choices *c, unsigned n) { return c->pos < c->size ? c->data[c->pos++] % n : 0; }

#define G4_CHOOSE(c, list) list[g4_choose(c, sizeof(list) / sizeof *(list))]

static void g4_choose_schema(g4_choices *c, int depth);

static void g4_choose_value(g4_choices *c)
{
    static const char *const values[] = { "null", "true", "0",     "1",         "-3",    "2.5",
                                          "1e2",  "\"\"", "\"a\"", "\"ab\"",    "\"é\"", "\"\\n\"",
                                          "[]",   "{}",   "[1,1]", "{\"a\":1}", "-0.0",  "1e-7" };
    g4_buf_str(&c->text, G4_CHOOSE(c, values));
}

static void g4_choose_name(g4_choices *c)
{
    static const char *const names[] = { "\"a\"", "\"b\"", "\"ab\"", "\"\"", "\"c d\"", "\"\\\"\"" };
    g4_buf_str(&c->text, G4_CHOOSE(c, names));
}

/* name: schema, ... in braces, or schemas in brackets. */
static void g4_choose_several(g4_choices *c, int depth, int is_named, int is_pattern)
{
    static const char *const patterns[] = { "\"^a\"", "\"b\"", "\"^.$\"", "\"\"", "\"[^a]$\"" };
    const unsigned n = 1 + g4_choose(c, 3);
    g4_buf_str(&c->text, is_named ? "{" : "[");
    for (unsigned i = 0; i < n; i++) {
        if (i > 0) g4_buf_str(&c->text, ",");
        if (is_pattern)
            g4_buf_str(&c->text, G4_CHOOSE(c, patterns));
        else if (is_named)
            g4_choose_name(c);
        if (is_named) g4_buf_str(&c->text, ":");
        g4_choose_schema(c, depth + 1);
    }
    g4_buf_str(&c->text, is_named ? "}" : "]");
}

static void g4_choose_list(g4_choices *c, void (*one)(g4_choices *c))
{
    const unsigned n = g4_choose(c, 4);
    g4_buf_str(&c->text, "[");
    for (unsigned i = 0; i < n; i++) {
        if (i > 0) g4_buf_str(&c->text, ",");
        one(c);
    }
    g4_buf_str(&c->text, "]");
}

static void g4_choose_type(g4_choices *c)
{
    static const char *const types[] = { "\"null\"",   "\"boolean\"", "\"integer\"", "\"number\"",
                                         "\"string\"", "\"array\"",   "\"object\"" };
    g4_buf_str(&c->text, G4_CHOOSE(c, types));
}

static void g4_choose_keyword(g4_choices *c, int depth)
{
    static const char *const below[] = {
        "items", "contains", "additionalProperties", "propertyNames",        "not", "if",
        "then",  "else",     "unevaluatedItems",     "unevaluatedProperties"
    };
    static const char *const numbers[] = { "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf" };
    static const char *const counts[] = { "minLength",     "maxLength",     "minItems",    "maxItems",
                                          "minProperties", "maxProperties", "minContains", "maxContains" };
    static const char *const amounts[] = { "0", "1", "2", "3", "-5", "0.5", "7", "0.01", "1e3", "-0.75", "40" };
    static const char *const patterns[] = { "^a+b?$", "a",      "^(ab|b){2,3}$", "^\\\\S+$", "^.{2}$", "(?=a).",
                                            "^(?!a)", "\\\\bb", "[^a]$",         "^\\\\d+$", "(a*)*b", "" };
    static const char *const formats[] = { "date", "time",     "date-time", "email",    "uuid", "ipv4",
                                           "ipv6", "hostname", "uri",       "duration", "none" };
    static const char *const references[] = { "#", "#/$defs/a", "#/$defs/b", "#a", "#/properties/a" };
    static const char *const some[] = { "allOf", "anyOf", "oneOf", "prefixItems" };
    const unsigned kind = g4_choose(c, 16);
    if (kind < 3 && depth < 4) {
        g4_buf_fmt(&c->text, "\"%s\":", G4_CHOOSE(c, below));
        g4_choose_schema(c, depth + 1);
    } else if (kind == 3 && depth < 4) {
        g4_buf_fmt(&c->text, "\"%s\":", G4_CHOOSE(c, some));
        g4_choose_several(c, depth, 0, 0);
    } else if (kind == 4 && depth < 4) {
        g4_buf_str(&c->text, "\"properties\":");
        g4_choose_several(c, depth, 1, 0);
    } else if (kind == 5 && depth < 4) {
        const int is_pattern = (int)g4_choose(c, 2);
        g4_buf_str(&c->text, is_pattern ? "\"patternProperties\":" : "\"dependentSchemas\":");
        g4_choose_several(c, depth, 1, is_pattern);
    } else if (kind == 6) {
        g4_buf_str(&c->text, "\"type\":");
        g4_choose_type(c);
    } else if (kind == 7) {
        g4_buf_str(&c->text, "\"enum\":");
        g4_choose_list(c, g4_choose_value);
    } else if (kind == 8) {
        g4_buf_str(&c->text, "\"const\":");
        g4_choose_value(c);
    } else if (kind == 9) {
        g4_buf_fmt(&c->text, "\"%s\":%s", G4_CHOOSE(c, numbers), G4_CHOOSE(c, amounts));
    } else if (kind == 10) {
        g4_buf_fmt(&c->text, "\"%s\":%u", G4_CHOOSE(c, counts), g4_choose(c, 4));
    } else if (kind == 11) {
        g4_buf_fmt(&c->text, "\"pattern\":\"%s\"", G4_CHOOSE(c, patterns));
    } else if (kind == 12) {
        g4_buf_fmt(&c->text, "\"format\":\"%s\"", G4_CHOOSE(c, formats));
    } else if (kind == 13) {
        g4_buf_str(&c->text, "\"required\":");
        g4_choose_list(c, g4_choose_name);
    } else if (kind == 14) {
        g4_buf_fmt(&c->text, "\"$ref\":\"%s\"", G4_CHOOSE(c, references));
    } else {
        g4_buf_str(&c->text, g4_choose(c, 2) ? "\"uniqueItems\":true" : "\"additionalProperties\":false");
    }
}

static void g4_choose_schema(g4_choices *c, int depth)
{
    const unsigned n = g4_choose(c, 6);
    if (n == 5 && depth > 0) {
        g4_buf_str(&c->text, g4_choose(c, 2) ? "true" : "false");
        return;
    }
    g4_buf_str(&c->text, "{");
    for (unsigned i = 0; i < n; i++) {
        if (i > 0) g4_buf_str(&c->text, ",");
        g4_choose_keyword(c, depth);
    }
    if (depth == 0) {
        g4_buf_str(&c->text, n > 0 ? ",\"$defs\":{\"a\":" : "\"$defs\":{\"a\":");
        g4_choose_schema(c, 2);
        g4_buf_str(&c->text, ",\"b\":");
        g4_choose_schema(c, 2);
        g4_buf_str(&c->text, "}");
    }
    g4_buf_str(&c->text, "}");
}

/* ---- What is written ------------------------------------------------------------------------------------- */

typedef struct {
    const char *schema;
    const g4_tokenizer *t;
    int is_exact; /* nothing was loosened, and the syntax has no names that it cannot tell from their values */
} g4_fuzz_schema_user;

/* Does the syntax of calls, which has no quotes around names, hold all that stands in this schema as a name? */
static int g4_fuzz_is_callable(const char *schema)
{
    return strpbrk(schema, "\\=") == NULL && strstr(schema, "\"\"") == NULL;
}

static const char *g4_fuzz_check_json(const g4_fuzz_schema_user *u, const char *text, size_t len)
{
    g4_json *v = NULL;
    const g4_status st = g4_json_parse(&v, NULL, text, len, NULL);
    g4_json_free(NULL, v);
    if (st != G4_OK) return "what is written is not JSON";
    return u->is_exact && g4_validate_text(u->schema, text, len) == G4_INVALID ? "what is written is not valid" : NULL;
}

static const char *g4_fuzz_check_value(const void *user, const g4_written *w)
{
    return g4_fuzz_check_json(user, w->text.data != NULL ? w->text.data : "", w->text.len);
}

/* What is written is one call without its markers. */
static const char *g4_fuzz_check_call(const void *user, const g4_written *w)
{
    const g4_fuzz_schema_user *u = user;
    const char *wrong = "not read as a call";
    g4_response *r;
    int n;
    if (g4_response_new(&r, NULL, u->t, 0, NULL, NULL, NULL) != G4_OK) abort();
    g4_response_feed(r, G4_CONTROL_CALL, NULL, 0);
    for (int i = 0; i < w->n; i++) g4_response_push(r, w->tokens[i]);
    g4_response_feed(r, G4_CONTROL_CALL_END, NULL, 0);
    if (g4_response_finish(r, NULL) != G4_OK) abort();
    const g4_part *p = g4_response_parts(r, &n);
    if (n == 1 && p->kind == G4_PART_TOOL_CALL && !p->incomplete && strcmp(p->name, "f") == 0)
        wrong = g4_fuzz_check_json(u, p->text, p->text_len);
    g4_response_close(r);
    return wrong;
}

static g4_status g4_fuzz_open(g4_grammar **g, const g4_engine *e, const char *source, int is_tool, g4_exactness how,
                              g4_buf *warnings, g4_error *err)
{
    const g4_schema_options opt = { .strict = how == G4_STRICT, .warn = g4_constrained_warn, .user = warnings };
    return is_tool ? g4_grammar_from_tools(g, e, source, strlen(source), NULL, &opt, err)
                   : g4_grammar_from_schema(g, e, source, strlen(source), &opt, err);
}

/* A schema in words. */
static void g4_fuzz_one(const char *schema, int is_tool, g4_exactness how)
{
    const g4_engine *e = g4_walk_engine();
    g4_buf tools = { 0 }, warnings = { 0 };
    g4_grammar *g = NULL, *again = NULL;
    g4_error err = { 0 };
    g4_buf_fmt(&tools, "[{\"function\":{\"name\":\"f\",\"parameters\":%s}}]", schema);
    const char *source = is_tool ? tools.data : schema;
    const g4_status st = g4_fuzz_open(&g, e, source, is_tool, how, &warnings, &err);
    g4_walk_check_reason(st, source, &err);
    if (st == G4_OK && g4_fuzz_open(&again, e, source, is_tool, how, &warnings, &err) == G4_OK) {
        const int is_exact = warnings.len == 0 && (!is_tool || g4_fuzz_is_callable(schema));
        const g4_fuzz_schema_user user = { schema, g4_engine_tokenizer(e), is_exact };
        const g4_walk_plan plan = { .g = g,
                                    .again = is_tool ? NULL : again,
                                    .t = user.t,
                                    .source = source,
                                    .n_texts = G4_FUZZ_WALKS,
                                    .max_tokens = G4_FUZZ_TOKENS,
                                    .check = is_tool ? g4_fuzz_check_call : g4_fuzz_check_value,
                                    .user = &user };
        g4_walk_all(&plan);
    }
    g4_grammar_close(g);
    g4_grammar_close(again);
    g4_buf_free(&warnings);
    g4_buf_free(&tools);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    g4_choices c = { .data = data + 1, .size = size - 1 };
    if (data[0] & 2)
        g4_choose_schema(&c, 0);
    else
        g4_buf_add(&c.text, data + 1, size - 1);
    if (c.text.data != NULL && strlen(c.text.data) == c.text.len)
        g4_fuzz_one(c.text.data, data[0] >> 2 & 1, data[0] & 1 ? G4_STRICT : G4_LOOSENED);
    g4_buf_free(&c.text);
    return 0;
}
