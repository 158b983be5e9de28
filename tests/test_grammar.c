/* Grammars: what schemas and rules let through on the real vocabulary, errors with keyword and place, tools in the call
 * syntax, and memory. tests/test_schema_valid.py compares with the jsonschema-rs package. */
#include "failing.h"
#include "test.h"
#include "vocab.h"

static g4_tokenizer g4_real, g4_small;
static const g4_tokenizer *g4_vocab = &g4_real; /* the small one is prepared a hundred times as fast */

/* Does the grammar accept this text, whole? Masks and reading must agree on every token on the way. */
static int g4_accepts(g4_grammar *g, const char *text)
{
    g4_tokens ids = { 0 };
    int32_t state = g4_grammar_start(g);
    g4_tokenizer_encode(g4_vocab, NULL, text, strlen(text), 1, &ids, NULL, NULL);
    for (size_t i = 0; i < ids.n && state != 0; i++) {
        const uint32_t *mask = g4_grammar_mask(g, state);
        int allowed = (int)(mask[ids.ids[i] / 32] >> (ids.ids[i] % 32) & 1);
        state = g4_grammar_read(g, state, ids.ids[i]);
        G4_EXPECT(allowed == (state != 0), "%s: token %zu: mask %d, read %d", text, i, allowed, state != 0);
    }
    g4_free(NULL, ids.ids);
    return g4_grammar_accepts(g, state);
}

/* Texts after the source: those it must accept, NULL, those it must not, NULL. */
static void g4_try(int is_schema, const char *source, const char *const *texts)
{
    g4_grammar *g;
    g4_error err = { 0 };
    g4_status st = is_schema ? g4_grammar_schema(&g, NULL, g4_vocab, source, strlen(source), NULL, NULL, &err)
                             : g4_grammar_rules(&g, NULL, g4_vocab, source, strlen(source), NULL, &err);
    G4_EXPECT(st == G4_OK, "%s: %s", source, err.message);
    if (st != G4_OK) return;
    for (int want = 1; want >= 0; want--, texts++)
        for (; *texts != NULL; texts++) G4_EXPECT(g4_accepts(g, *texts) == want, "%s: %s", source, *texts);
    g4_grammar_close(g);
}
#define G4_SCHEMA(source, ...) g4_try(1, source, (const char *const[]) { __VA_ARGS__, NULL })
#define G4_RULES(source, ...) g4_try(0, source, (const char *const[]) { __VA_ARGS__, NULL })

static void g4_refused(int is_schema, const char *source, const char *want)
{
    g4_grammar *g;
    g4_error err = { 0 };
    const g4_schema_options strict = { .strict = 1 };
    g4_status st = is_schema ? g4_grammar_schema(&g, NULL, &g4_small, source, strlen(source), &strict, NULL, &err)
                             : g4_grammar_rules(&g, NULL, &g4_small, source, strlen(source), NULL, &err);
    G4_EXPECT(st != G4_OK && g == NULL && strcmp(err.message, want) == 0, "%s: %s", source, err.message);
    g4_grammar_close(g);
}

static void g4_test_texts(void)
{
    G4_SCHEMA("{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\", \"minimum\": -3, \"maximum\": "
              "120}, \"b\": "
              "{\"type\": \"string\", \"minLength\": 1, \"maxLength\": 3}}, \"required\": [\"a\"]}",
              "{\"a\": 1}", "{\"a\": 1, \"c\": [1, \"x\"]}", "{\"a\":-3,\"b\":\"xyz\"}",
              "{\n  \"a\": 120,\n  \"b\": \"\xc3\xa9\\n\\u00e9\"\n}", NULL, "{}", "{\"b\": \"x\"}", "{\"a\": 121}",
              "{\"a\": -4}", "{\"a\": 01}", "{\"a\": 1, \"b\": \"\"}", "{\"a\": 1, \"b\": \"wxyz\"}",
              "{\"b\": \"x\", \"a\": 1}", "{\"a\": 1.5}", "```json\n{\"a\": 1}\n```", "{\"a\": 1} ", " {\"a\": 1}");
    G4_SCHEMA("{\"type\": \"number\", \"exclusiveMinimum\": 0.25, \"maximum\": 10}", "0.3", "0.251", "10", "9.99",
              "10.0", "1", "9.5e0", NULL, "0.25", "0", "10.1", "11", "-1", "1e9", "00.3");
    G4_SCHEMA("{\"type\": \"number\", \"minimum\": -2.5, \"exclusiveMaximum\": -0.5}", "-2.5", "-2.49", "-0.51", "-1",
              NULL, "-2.51", "-0.5", "0", "-3", "1");
    G4_SCHEMA("{\"type\": \"string\", \"pattern\": \"^a\\\\\\\\[0-9]+\\\"?$\"}", "\"a\\\\12\"", "\"a\\\\1\\\"\"", NULL,
              "\"a12\"", "\"a\\\\\"", "\"a\\\\1\"x");
    G4_SCHEMA("{\"enum\": [\"yes\", \"no\", 3, null, {\"k\": [1, true]}]}", "\"yes\"", "3", "null",
              "{\"k\": [1, true]}", NULL, "yes", "\"maybe\"", "30");
    G4_SCHEMA("{\"type\": \"array\", \"items\": {\"type\": \"boolean\"}, \"minItems\": 1, \"maxItems\": 3}", "[true]",
              "[true, false,true]", "[\n true\n]", NULL, "[]", "[true,]", "[true, false, true, true]", "[1]");
    G4_SCHEMA("{\"type\": \"object\", \"properties\": {\"ab\": {\"type\": \"null\"}}, \"additionalProperties\": "
              "{\"type\": \"integer\"}}",
              "{}", "{\"ab\": null}", "{\"a\": 1, \"abc\": 2}", "{\"ab\": null, \"\": 1}", NULL, "{\"ab\": 1}",
              "{\"a\": null}", "{\"a\\u0062\": 1}");
    G4_SCHEMA("{\"$ref\": \"#/$defs/a~1b\", \"$defs\": {\"a/b\": {\"type\": \"array\", \"items\": {\"$ref\": \"#\"}}}}",
              "[]", "[[], [[]]]", NULL, "[1]", "[[]");
    G4_SCHEMA("true", "{\"a\": [1, \"x\", null, -0.5e+10, {}]}", "\"x\"", NULL, "nul", "{a: 1}", "");
    G4_RULES("root ::= item+ # a list\nitem ::= \"- \" [^\\n]{1,20} \"\\n\"", "- one\n", "- one\n- two\n", NULL,
             "one\n", "- one", "- \n", "- 123456789012345678901\n");
    G4_RULES("a ::= \"(\" a \")\" | \"x\"", "x", "((x))", NULL, "((x)", "()", "");
    G4_RULES("a ::= a \"x\" | \"y\"", "y", "yx", "yxxx", NULL, "", "x", "yy", "xy", "yxy");
    G4_RULES("a ::= b \"x\" | \"y\"\nb ::= \"\" a | a \"z\" \"\"", "y", "yx", "yzxx", "yxxzx", NULL, "", "yz", "yzzx");
    G4_RULES("a ::= b | a \"+\" b\nb ::= c | b \"*\" c\nc ::= \"(\" a \")\" | [0-9]", "1", "1+2*3", "(1*2+3)*(4)+5",
             NULL, "1+", "*1", "(1", "1**2", "()");
    G4_RULES("a ::= n a \"x\" | \"y\"\nn ::= \"-\"?", "y", "yx", "-yxx",
             "--y"
             "xx",
             NULL, "-y", "yx-", "--yx");
    G4_RULES("root ::= [a-c\\x64]* (\"\\u00e9\" | \"\\\"\")? ", "", "abcd", "a\xc3\xa9", "\"", NULL, "e", "a\"\"");
}

static void g4_keep_warning(void *user, const char *message) { snprintf(user, 200, "%s", message); }

/* A text of n pieces with commas between them, in which @ is the number of the piece and ~ the next one. */
static char *g4_made(const char *head, const char *each, int n, const char *tail)
{
    g4_buf b = { 0 };
    g4_buf_str(&b, head);
    for (int i = 0; i < n; i++) {
        if (i > 0) g4_buf_str(&b, ",");
        for (const char *c = each; *c != '\0'; c++)
            if (*c == '@' || *c == '~')
                g4_buf_fmt(&b, "%d", i + (*c == '~'));
            else
                g4_buf_add(&b, c, 1);
    }
    g4_buf_str(&b, tail);
    if (b.failed) abort();
    return b.data;
}

/* The same as G4_SCHEMA, of a schema that is made; strict: nothing of it may be loosened. */
static void g4_try_made(int strict, char *source, const char *const *texts)
{
    g4_grammar *g;
    g4_error err = { 0 };
    const g4_schema_options options = { .strict = strict };
    g4_status st = g4_grammar_schema(&g, NULL, g4_vocab, source, strlen(source), &options, NULL, &err);
    G4_EXPECT(st == G4_OK, "%.200s: %s", source, err.message);
    for (int want = 1; want >= 0 && st == G4_OK; want--, texts++)
        for (; *texts != NULL; texts++) G4_EXPECT(g4_accepts(g, *texts) == want, "%.200s: %s", source, *texts);
    g4_grammar_close(g);
    g4_free(NULL, source);
}
#define G4_HELD(source, ...) g4_try_made(1, source, (const char *const[]) { __VA_ARGS__, NULL })
#define G4_LOOSE(source, ...) g4_try_made(0, source, (const char *const[]) { __VA_ARGS__, NULL })

/* Chains, however long, are followed; what is beyond a limit is loosened, and shuts out nothing that is valid. */
static void g4_test_limits(void)
{
    G4_HELD(g4_made("{\"$ref\":\"#/$defs/d0\",\"$defs\":{", "\"d@\":{\"$ref\":\"#/$defs/d~\"}", 3000,
                    ",\"d3000\":{\"type\":\"integer\"}}}"),
            "1", NULL, "\"x\"");
    G4_HELD(g4_made("{\"properties\":{\"a\":{\"$ref\":\"#/$defs/d0\"}},\"$defs\":{",
                    "\"d@\":{\"not\":{\"$ref\":\"#/$defs/d~\"}}", 71, ",\"d71\":{\"type\":\"integer\"}}}"),
            "{}", "{\"a\": \"x\"}", NULL, "{\"a\": 1}");
    G4_HELD(g4_made("{\"anyOf\":[{\"type\":\"integer\"},{\"$ref\":\"#/$defs/d0\"}],\"$defs\":{",
                    "\"d@\":{\"allOf\":[{\"$ref\":\"#/$defs/d~\"}]}", 70, ",\"d70\":{\"$ref\":\"#/$defs/d9\"}}}"),
            "1", NULL, "\"x\"");
    G4_LOOSE(g4_made("{\"type\":\"object\",\"unevaluatedProperties\":false,\"anyOf\":[",
                     "{\"properties\":{\"p@\":{\"type\":\"integer\"}},\"required\":[\"p@\"]}", 6, "]}"),
             "{\"p0\": 1}", "{\"p5\": 1}", "{\"p0\": 1, \"p5\": 1}", NULL, "{\"q\": 1}", "{}");
    G4_HELD(g4_made("{\"type\":\"object\",\"patternProperties\":{", "\"^x@-\":{\"type\":\"integer\"}", 60, "}}"), "{}",
            "{\"foo\": 1}", "{\"x59-a\": 1}", NULL, "{\"x59-a\": \"s\"}");
    G4_LOOSE(g4_made("{\"type\":\"object\",\"additionalProperties\":false,\"patternProperties\":{",
                     "\"^x@-\":{\"type\":\"integer\"}", 70, "}}"),
             "{}", "{\"x0-a\": 1}", "{\"x69-a\": 1}", NULL, "{\"x1-a\": \"s\"}");
    G4_LOOSE(g4_made("{\"type\":\"object\",\"unevaluatedProperties\":false,\"properties\":{\"t\":{}},\"allOf\":[",
                     "{\"if\":{\"required\":[\"a@\"],\"properties\":{\"a@\":{\"const\":1}}},"
                     "\"then\":{\"properties\":{\"b@\":{}}}}",
                     20, "]}"),
             "{\"t\": 1}", "{\"a3\": 1, \"b3\": 1}", NULL, "[]");
}

/* Many alternatives that constants tell apart, and many constants, are held; the rest is loosened soon. */
static void g4_test_alternatives(void)
{
    G4_HELD(g4_made("{\"enum\":[", "{\"a\":@,\"b\":[@]}", 1000, "]}"), "{\"a\": 999, \"b\": [999]}", NULL,
            "{\"a\": 999, \"b\": [998]}", "{}");
    G4_HELD(g4_made("{\"oneOf\":[",
                    "{\"properties\":{\"t\":{\"const\":\"t@\"},\"v\":{\"const\":@}},\"required\":[\"t\"],"
                    "\"type\":\"object\"}",
                    1000, "]}"),
            "{\"t\": \"t999\", \"v\": 999}", NULL, "{\"t\": \"t999\", \"v\": 998}", "{}");
    G4_HELD(g4_made("{\"anyOf\":[",
                    "{\"properties\":{\"t\":{\"const\":\"t@\"},\"v\":{\"const\":@}},\"required\":[\"t\"],"
                    "\"type\":\"object\"}",
                    1000, "]}"),
            "{\"t\": \"t999\", \"v\": 999}", NULL, "{\"t\": \"t999\", \"v\": 998}", "{}");
    G4_HELD(g4_made("{\"enum\":[-2.50,0,", "@", 5000, "]}"), "4999", "0", "-0", "4999.00", "-2.5", "-2.500", NULL,
            "5000", "-1", "2.5", "1.5");
    G4_HELD(g4_made("{\"oneOf\":[{\"const\":7.0},", "{\"const\":@}", 5000, "]}"), "4999", "0.0", NULL, "7", "5000");
    G4_HELD(g4_made("{\"not\":{\"enum\":[", "@", 300, "]}}"), "300", "0.5", "\"x\"", NULL, "299", "0");
    G4_LOOSE(g4_made("{\"oneOf\":[", "{\"type\":\"number\",\"minimum\":@,\"maximum\":~}", 1000, "]}"), "0.5", "999.5",
             NULL, "-1");
    G4_LOOSE(g4_made("{\"allOf\":[", "{\"properties\":{\"v@\":{\"type\":\"integer\"}}}", 9000, "]}"), "{\"v3\": 1}",
             "{}", NULL, "{");
    G4_LOOSE(g4_made("{\"type\":\"object\",\"allOf\":[",
                     "{\"if\":{\"properties\":{\"k@\":{\"const\":@}},\"required\":[\"k@\"]},\"then\":{\"required\":["
                     "\"r@\"]}}",
                     300, "]}"),
             "{}", "{\"k3\": 3, \"r3\": 1}", NULL, "[]");
    G4_LOOSE(g4_made("{\"type\":\"object\",\"allOf\":[", "{\"not\":{\"required\":[\"k@\",\"j@\"]}}", 500, "]}"), "{}",
             "{\"k3\": 3}", NULL, "{\"k3\": 3, \"j3\": 1}");
    G4_HELD(g4_made("{\"type\":\"object\",\"allOf\":[",
                    "{\"if\":{\"properties\":{\"k\":{\"const\":\"v@\"}},\"required\":[\"k\"]},"
                    "\"then\":{\"required\":[\"r@\"]}}",
                    400, "]}"),
            "{}", "{\"k\": \"x\"}", "{\"k\": \"v3\", \"r3\": 1}", "{\"k\": 1}", NULL, "{\"k\": \"v3\"}",
            "{\"k\": \"v399\", \"r3\": 1}");
    G4_HELD(g4_made("{\"type\":\"object\",\"allOf\":[",
                    "{\"if\":{\"properties\":{\"k\":{\"const\":@}}},\"then\":{\"properties\":{\"p\":{\"maximum\":@}}}}",
                    20, ",{\"required\":[\"p\"]}]}"),
            "{\"p\": 0}", "{\"k\": 9, \"p\": 9}", "{\"k\": 99, \"p\": 99}", NULL, "{\"p\": 1}", "{\"k\": 9, \"p\": 10}",
            "{\"k\": 9}");
    char *name = g4_alloc(NULL, 1, 500000);
    if (name == NULL) abort();
    memset(name, 'k', 500000);
    memcpy(name, "{\"properties\":{\"", 16);
    memcpy(name + 499990, "\":{}}}", 7);
    g4_try_made(0, name, (const char *const[]) { "{}", NULL, "x", NULL });
}

/* A tool that is too large takes any object; the others stay as they are. */
static void g4_test_large_tools(void)
{
    char *text = g4_made("[{\"name\":\"a\",\"parameters\":{\"type\":\"object\",\"properties\":{\"x\":{\"type\":"
                         "\"integer\"}},\"additionalProperties\":false}},{\"name\":\"b\",\"parameters\":{\"type\":"
                         "\"object\",\"properties\":{\"",
                         "kkkkkkkkkkkkkkkkkkk", 50000, "\":{}}}}]");
    char warning[200] = "";
    g4_schema_options options = { .warn = g4_keep_warning, .user = warning };
    g4_json *tools;
    g4_grammar *g;
    g4_error err = { 0 };
    if (g4_json_parse(&tools, NULL, text, strlen(text), NULL) != G4_OK) abort();
    G4_EXPECT(g4_grammar_tools(&g, NULL, &g4_small, tools, NULL, &options, NULL, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(strcmp(warning, "tools[1].function.parameters #: too large: any object is allowed") == 0, "%s", warning);
    if (g != NULL) {
        g4_vocab = &g4_small;
        G4_EXPECT(g4_accepts(g, "call:a{x:1}") && g4_accepts(g, "call:b{x:null}") && !g4_accepts(g, "call:a{x:null}"),
                  "the calls");
    }
    g4_grammar_close(g);
    options.strict = 1;
    G4_EXPECT(g4_grammar_tools(&g, NULL, &g4_small, tools, NULL, &options, NULL, &err) != G4_OK && g == NULL, "strict");
    g4_json_free(NULL, tools);
    g4_free(NULL, text);
}

static void g4_test_errors(void)
{
    g4_refused(1, "{\"items\": {\"type\": \"int\"}}",
               "schema #/items/type: must be null, boolean, integer, number, string, array or object, or a list of "
               "these: ignored");
    g4_refused(1, "{\"$ref\": \"#/$defs/x\"}", "schema #/$ref: #/$defs/x is not in the document: anything is allowed");
    g4_refused(1, "{\"properties\": {\"a\": {\"$ref\": \"other.json\"}}}",
               "schema #/properties/a/$ref: other.json is not in the document: anything is allowed");
    g4_refused(1, "{\"$ref\": \"#\"}", "schema: nothing can satisfy it");
    g4_refused(1, "{\"type\": \"integer\", \"minimum\": 5, \"maximum\": 4}", "schema: nothing can satisfy it");
    g4_refused(1, "{\"type\": \"object\", \"required\": [\"a\"], \"additionalProperties\": false}",
               "schema: nothing can satisfy it");
    g4_refused(1, "{\"type\": \"array\", \"minItems\": 5000, \"items\": {\"type\": \"object\"}}",
               "schema #/minItems: above 4096: that many are asked for");
    g4_refused(1, "false", "schema: nothing can satisfy it");
    g4_refused(1, "3", "schema #: a schema must be an object, true or false");
    g4_refused(1, "{", "schema: JSON, line 1 column 2: expected a name in double quotes");
    g4_refused(0, "", "grammar: no rules");
    g4_refused(0, "a ::= b", "grammar: the rule b is used and not defined");
    g4_refused(0, "a ::= a \"x\"", "grammar: nothing can satisfy it");
    g4_refused(0, "a ::= \"x\"\na ::= \"y\"", "grammar, line 2 column 1: this rule is defined already");
    g4_refused(0, "a ::= \"x", "grammar, line 1 column 9: a text without its closing quote");
    g4_refused(0, "a = \"x\"", "grammar, line 1 column 3: expected ::=");
    g4_refused(0, "a ::= [z-a]", "grammar, line 1 column 8: a bad range in a class");
    g4_refused(0, "a ::= \"x\"{3,2}", "grammar, line 1 column 15: {m,n} with n below m");
    g4_refused(0, "a ::= \"\xc3\xa9\"{3,2}", "grammar, line 1 column 15: {m,n} with n below m");
    g4_refused(0, "a ::= )", "grammar, line 1 column 7: unexpected )");
}

/* What combines schemas, and what speaks of members and elements as wholes. */
static void g4_test_combinations(void)
{
    G4_SCHEMA("{\"oneOf\": [{\"type\": \"integer\"}, {\"minimum\": 2}]}", "1", "2.5", "\"x\"", NULL, "3", "1.5");
    /* what a reference that leads nowhere would exclude is not known */
    G4_SCHEMA(
        "{\"additionalProperties\": {\"properties\": {\"s\": {\"oneOf\": [{}, {\"properties\": {\"r\": {\"type\": "
        "\"boolean\"}, \"e\": {\"$ref\": \"#/definitions/none\"}}}]}}}}",
        "{}", "{\"x\": {\"s\": {\"r\": 1}}}", NULL, "1x");
    G4_SCHEMA("{\"not\": {\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"string\"}}}}", "1", "{\"a\": 1}",
              NULL, "{}", "{\"a\": \"x\"}");
    G4_SCHEMA(
        "{\"type\": \"object\", \"if\": {\"properties\": {\"k\": {\"const\": 1}}, \"required\": [\"k\"]}, \"then\": "
        "{\"required\": [\"a\"]}, \"else\": {\"required\": [\"b\"]}, \"properties\": {\"k\": {}, \"a\": {}, \"b\": "
        "{}}}",
        "{\"k\": 1, \"a\": 0}", "{\"k\": 2, \"b\": 0}", "{\"b\": 0}", NULL, "{\"k\": 1, \"b\": 0}", "{\"a\": 0}", "{}");
    G4_SCHEMA(
        "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"string\"}}, \"unevaluatedProperties\": false, "
        "\"anyOf\": [{\"properties\": {\"b\": {\"const\": 1}}, \"required\": [\"b\"]}, {\"properties\": {\"c\": "
        "{\"const\": 2}}, \"required\": [\"c\"]}]}",
        "{\"a\": \"x\", \"b\": 1}", "{\"b\": 1, \"c\": 2}", NULL, "{\"a\": \"x\"}", "{\"b\": 1, \"c\": 3}",
        "{\"b\": 1, \"d\": 3}");
    G4_SCHEMA("{\"type\": \"array\", \"contains\": {\"type\": \"integer\"}, \"minContains\": 1, \"maxContains\": 2}",
              "[1]", "[1, \"x\", 2]", NULL, "[]", "[\"x\"]", "[1, 2, 3]");
    G4_SCHEMA("{\"type\": \"object\", \"patternProperties\": {\"^x-\": {\"type\": \"integer\"}}, "
              "\"additionalProperties\": {\"type\": \"string\"}, \"minProperties\": 2, \"maxProperties\": 3}",
              "{\"x-a\": 1, \"b\": \"c\"}", NULL, "{\"x-a\": 1}", "{\"x-a\": \"1\", \"b\": \"c\"}",
              "{\"x-a\": 1, \"b\": 2}", "{\"a\": \"\", \"b\": \"\", \"c\": \"\", \"d\": \"\"}");
    G4_SCHEMA("{\"type\": \"object\", \"propertyNames\": {\"pattern\": \"^[a-c]+$\"}, \"required\": [\"b\", \"a\"], "
              "\"dependentRequired\": {\"a\": [\"c\"]}}",
              "{\"a\": 1, \"b\": 2, \"c\": 3}", "{\"c\": 1, \"b\": 2, \"a\": 3}", NULL, "{\"a\": 1, \"b\": 2}",
              "{\"a\": 1, \"b\": 2, \"c\": 3, \"d\": 4}");
    G4_SCHEMA("{\"$schema\": \"http://json-schema.org/draft-07/schema#\", \"type\": \"array\", \"items\": [{\"type\": "
              "\"null\"}], \"additionalItems\": {\"$ref\": \"#\"}}",
              "[]", "[null, []]", "[null, [null]]", NULL, "[1]", "[null, null]");
    G4_SCHEMA(
        "{\"allOf\": [{\"$ref\": \"#/$defs/a\"}, {\"properties\": {\"n\": {\"maximum\": 5}}}], \"$defs\": {\"a\": "
        "{\"type\": \"object\", \"properties\": {\"n\": {\"type\": \"integer\", \"multipleOf\": 2}, \"next\": "
        "{\"$ref\": \"#/$defs/a\"}}, \"additionalProperties\": false}}}",
        "{\"n\": 4}", "{\"next\": {\"n\": 8}}", NULL, "{\"n\": 8}", "{\"n\": 3}", "{\"m\": 1}",
        "{\"next\": {\"n\": 3}}");
    G4_SCHEMA("{\"type\": \"json_schema\", \"json_schema\": {\"name\": \"r\", \"strict\": true, \"schema\": {\"type\": "
              "\"object\", \"properties\": {\"a\": {\"type\": \"null\"}}}}}",
              "{\"a\": null}", "{}", NULL, "{\"b\": 1}");
}

/* Values are equal, whatever their spelling; what a draft does not have yet says nothing. */
static void g4_test_values(void)
{
    G4_SCHEMA("{\"items\": {\"type\": \"number\"}, \"uniqueItems\": true}", "[0, 1, -1.5]", "[1, 10]", NULL, "[0, -0]",
              "[0, -0.0]", "[1, 1.0]", "[1.5, 2, 15e-1]", "[2, 1, 1e0]");
    G4_SCHEMA("{\"items\": {\"type\": [\"string\", \"null\"]}, \"uniqueItems\": true}", "[\"a\", \"A\", null]", NULL,
              "[\"a\", \"\\u0061\"]", "[\"a\", \"b\", \"b\"]", "[null, \"a\", null]");
    G4_SCHEMA("{\"items\": {\"enum\": [\"a\", \"b\", 1]}, \"uniqueItems\": true, \"minItems\": 2}",
              "[\"b\", \"a\", 1.0]", NULL, "[\"b\", \"a\", \"a\"]", "[1, \"a\", 1.0]");
    G4_SCHEMA("{\"not\": {\"const\": {\"a\": 1}}}", "{\"a\": 2}", "{\"a\": 1, \"b\": 1}", "{}", "1", NULL, "{\"a\": 1}",
              "{\"\\u0061\": 1}", "{\"a\": 1.0}");
    G4_SCHEMA("{\"oneOf\": [{\"enum\": [[1], {\"a\": []}]}, {\"type\": \"object\"}]}", "[1]", "{\"a\": [1]}", NULL,
              "{\"a\": []}");
    G4_SCHEMA("{\"enum\": [\"x\\u007f\", \"\"]}", "\"x\x7f\"", "\"\"", NULL, "\"x\"");
    G4_SCHEMA("{\"type\": \"string\", \"not\": {\"const\": \"\\u007f\"}}", "\"\"", "\"\x7f\x7f\"", NULL, "\"\x7f\"");
    G4_SCHEMA("{\"type\": \"integer\", \"minimum\": 2}", "2", "6000.0", "2.00", NULL, "1.0", "2.5", "2.01");
    G4_SCHEMA("{\"$schema\": \"http://json-schema.org/draft-04/schema#\", \"if\": true, \"then\": false, \"const\": 1}",
              "2", "\"x\"", NULL, "x");
    G4_SCHEMA("{\"$schema\": \"http://json-schema.org/draft-04/schema#\", \"type\": [\"integer\", \"null\"], "
              "\"minimum\": 2}",
              "2", "null", NULL, "1", "6000.0", "2.00", "2.5");
}

/* Elements that must differ, and have few values: those that others need are left for them. */
static void g4_test_distinct(void)
{
#define G4_LIST(members) "{\"type\": \"array\", \"uniqueItems\": true, " members "}"
#define G4_ENUM(values) "{\"enum\": [" values "]}"
#define G4_AB G4_ENUM("\"a\", \"b\"")
    static const char *const none[] = {
        G4_LIST("\"items\": " G4_AB ", \"minItems\": 3"),
        G4_LIST("\"items\": {\"const\": 1}, \"minItems\": 2"),
        G4_LIST("\"items\": {\"type\": [\"boolean\", \"null\"]}, \"minItems\": 4"),
        G4_LIST("\"items\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 30}, \"minItems\": 31"),
        G4_LIST("\"items\": {\"type\": \"string\", \"pattern\": \"^[a-c]?$\"}, \"minItems\": 5"),
        G4_LIST("\"items\": {\"anyOf\": [" G4_AB ", {\"const\": \"b\"}, {\"type\": \"null\"}]}, \"minItems\": 4"),
        G4_LIST("\"prefixItems\": [{\"const\": 1}, {\"type\": \"string\"}, {\"enum\": [1.0]}], \"items\": false, "
                "\"minItems\": 3"),
        G4_LIST("\"prefixItems\": [" G4_AB ", " G4_AB ", {\"const\": \"b\"}], \"items\": false, \"minItems\": 3"),
        "{\"uniqueItems\": true, \"enum\": [[1, 1], [\"a\", \"a\"], [0, true, 0e0]]}",
        "{\"properties\": {\"l\": " G4_LIST("\"items\": " G4_AB ", \"minItems\": 3") "}, \"required\": [\"l\"], "
                                                                                     "\"type\": \"object\"}",
    };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) g4_refused(1, none[i], "schema: nothing can satisfy it");
    G4_SCHEMA("{\"uniqueItems\": true, \"enum\": [\"a\", [1, 1], [1, 2]]}", "\"a\"", "[1, 2]", NULL, "[1, 1]", "[1]");
    G4_SCHEMA("{\"uniqueItems\": true, \"const\": [[1], [2], {}]}", "[[1], [2], {}]", NULL, "[[1], [1], {}]");
    G4_SCHEMA("{\"properties\": {\"l\": " G4_LIST("\"items\": " G4_AB ", \"minItems\": 3") "}, \"type\": \"object\"}",
              "{}", "{\"m\": 1}", NULL, "{\"l\": [\"a\"]}");
    G4_SCHEMA(
        G4_LIST("\"prefixItems\": [" G4_AB ", {\"const\": \"a\"}], \"items\": {\"type\": \"string\"}, \"minItems\": 2"),
        "[\"b\", \"a\"]", "[\"b\", \"a\", \"c\"]", NULL, "[\"a\", \"a\"]", "[\"a\", \"b\"]", "[\"b\", \"a\", \"b\"]",
        "[\"b\"]");
    G4_SCHEMA(G4_LIST("\"prefixItems\": [" G4_AB
                      ", " G4_ENUM("\"b\", \"c\"") ", " G4_ENUM("\"a\", \"c\"") "], "
                                                                                "\"minItems\": 3, \"maxItems\": 3"),
              "[\"a\", \"b\", \"c\"]", "[\"b\",\"c\",\"a\"]", NULL, "[\"a\", \"c\", \"a\"]", "[\"b\", \"b\", \"c\"]");
    G4_SCHEMA(G4_LIST("\"prefixItems\": [{\"type\": [\"integer\", \"null\"]}, {\"type\": \"boolean\"}], \"items\": "
                      "{\"type\": [\"boolean\", \"null\"]}, \"minItems\": 4"),
              "[1, true, null, false]", "[7, false, true, null]", NULL, "[null, true, false, 1]",
              "[1, true, true, false]");
    g4_refused(1, G4_LIST("\"prefixItems\": [{\"items\": {}}], \"items\": " G4_AB ", \"minItems\": 2"),
               "schema #/uniqueItems: is held for elements without parts only: not held");
    g4_refused(1, G4_LIST("\"items\": {\"type\": \"integer\"}, \"contains\": {\"const\": 2}"),
               "schema #/uniqueItems: is not held beside contains");
}

/* Values that a keyword cannot have are told, and not passed over. */
static void g4_test_malformed(void)
{
    g4_refused(1, "{\"required\": [1]}", "schema #/required: must be a list of names: ignored");
    g4_refused(1, "{\"properties\": {\"x\": {\"required\": [\"a\", null]}}}",
               "schema #/properties/x/required: must be a list of names: ignored");
    g4_refused(1, "{\"dependentRequired\": {\"a\": [1]}}",
               "schema #/dependentRequired/a: must be a list of names or a schema: ignored");
    g4_refused(1, "{\"dependentSchemas\": {\"a\": 3}}",
               "schema #/dependentSchemas/a: must be a list of names or a schema: ignored");
    g4_refused(1, "{\"multipleOf\": 0.0}", "schema #/multipleOf: must be a number above 0: ignored");
    g4_refused(1, "{\"multipleOf\": \"3\"}", "schema #/multipleOf: must be a number above 0: ignored");
    g4_refused(1, "{\"multipleOf\": -2}", "schema #/multipleOf: must be a number above 0: ignored");
    g4_refused(1, "{\"format\": 3}", "schema #/format: must be a string: ignored");
    g4_refused(1, "{\"uniqueItems\": \"yes\"}", "schema #/uniqueItems: must be true or false: ignored");
    g4_refused(1, "{\"prefixItems\": 3}", "schema #/prefixItems: must be a list of schemas: ignored");
}

/* Members of an object without undeclared ones, and in which order members stand. */
static void g4_test_members(void)
{
    /* undeclared ones that others depend on: as the schema first names them */
    G4_SCHEMA("{\"type\": \"object\", \"patternProperties\": {\"^[a-e]$\": true}, \"additionalProperties\": false, "
              "\"dependencies\": {\"a\": {\"anyOf\": [{\"required\": [\"c\"]}, {\"required\": [\"b\"]}]}, \"b\": "
              "{\"not\": {\"required\": [\"c\"]}}, \"c\": [\"e\"], \"d\": {}}, \"required\": [\"a\"]}",
              "{\"a\": 1, \"b\": 1}", "{\"a\": 1, \"c\": 1, \"e\": 1}", NULL, "{\"a\": 1}", "{\"a\": 1, \"c\": 1}");
    G4_SCHEMA(
        "{\"properties\": {\"a\": {}, \"b\": {}, \"c\": {}}, \"additionalProperties\": false, \"minProperties\": 1, "
        "\"maxProperties\": 3, \"type\": \"object\"}",
        "{\"a\": 1}", "{\"a\": 1, \"b\": 2, \"c\": 3}", NULL, "{}");
    /* more than five ways in which it must be something else */
    G4_SCHEMA("{\"type\": \"object\", \"oneOf\": [{\"properties\": {\"a\": {}}, \"additionalProperties\": false}, "
              "{\"properties\": {\"b\": {}}, \"additionalProperties\": false}, {\"properties\": {\"c\": {}}, "
              "\"additionalProperties\": false}, {\"properties\": {\"d\": {}}, \"additionalProperties\": false}, "
              "{\"properties\": {\"e\": {}}, \"additionalProperties\": false}, {\"properties\": {\"f\": {}}, "
              "\"additionalProperties\": false}, {\"properties\": {\"g\": {}}, \"additionalProperties\": false}]}",
              "{\"a\": 1}", "{\"g\": 1}", NULL, "{}", "{\"a\": 1, \"b\": 2}");
    /* as the first alternative names them, in both */
    G4_SCHEMA("{\"type\": \"object\", \"anyOf\": [{\"properties\": {\"m\": {\"properties\": {\"y\": {}, \"x\": {}}}}}, "
              "{\"properties\": {\"m\": {\"properties\": {\"x\": {\"type\": \"integer\"}, \"y\": {}}}, \"k\": {}}, "
              "\"required\": [\"k\"]}]}",
              "{\"m\": {\"y\": 1, \"x\": 2}, \"k\": 3}", NULL, "{");
    G4_SCHEMA(
        "{\"properties\": {\"p\": {}, \"n\": {\"type\": \"object\", \"required\": [\"z\", \"y\", \"x\", \"p\", \"w\"], "
        "\"additionalProperties\": {\"type\": \"null\"}}}}",
        "{\"n\": {\"z\": null, \"y\": null, \"x\": null, \"p\": null, \"w\": null}}", NULL,
        "{\"n\": {\"z\": null, \"y\": null, \"x\": null, \"p\": null}}");
    /* unevaluated... that allows anything holds of nothing, and has evaluated all */
    G4_SCHEMA("{\"type\": \"array\", \"if\": {\"$ref\": \"#\"}, \"unevaluatedItems\": {}}", "[1]", "[]", NULL, "1",
              NULL);
    G4_SCHEMA("{\"type\": \"array\", \"allOf\": [{\"unevaluatedItems\": true}], \"unevaluatedItems\": false}", "[1]",
              "[]", NULL, "1", NULL);
    /* what is not in the document may have evaluated anything */
    G4_SCHEMA("{\"type\": \"object\", \"allOf\": [{\"$ref\": \"http://x.org/y\"}], \"unevaluatedProperties\": false}",
              "{\"a\": 1}", "{}", NULL, "[]");
    G4_SCHEMA("{\"type\": \"array\", \"$ref\": \"http://x.org/y\", \"unevaluatedItems\": false}", "[1]", "[]", NULL,
              "{}");
}

/* Many conditions are held as one is: 600 required members, and 60 conditions that a constant tells apart. */
static void g4_test_many(void)
{
    const g4_schema_options strict = { .strict = 1 };
    g4_buf schema = { 0 };
    g4_grammar *g;
    g4_error err = { 0 };
    g4_buf_str(&schema, "{\"type\": \"object\", \"required\": [\"m0\"");
    for (int i = 1; i < 600; i++) g4_buf_fmt(&schema, ", \"m%d\"", i);
    g4_buf_str(&schema, "]}");
    const g4_status st = g4_grammar_schema(&g, NULL, &g4_small, schema.data, schema.len, &strict, NULL, &err);
    G4_EXPECT(st == G4_OK, "%s", err.message);
    g4_grammar_close(g);
    g4_buf_free(&schema);
    g4_buf_str(&schema,
               "{\"type\": \"object\", \"properties\": {\"k\": {\"type\": \"string\"}, \"v\": {}}, \"required\": "
               "[\"k\", \"v\"], \"allOf\": [true");
    for (int i = 0; i < 60; i++)
        g4_buf_fmt(&schema,
                   ", {\"if\": {\"properties\": {\"k\": {\"const\": \"%d\"}}}, \"then\": {\"properties\": {\"v\": "
                   "{\"const\": %d}}}}",
                   i, i);
    g4_buf_str(&schema, "]}");
    G4_SCHEMA(schema.data, "{\"k\": \"7\", \"v\": 7}", "{\"k\": \"59\", \"v\": 59}", "{\"k\": \"60\", \"v\": []}", NULL,
              "{\"k\": \"7\", \"v\": 8}", "{\"k\": \"59\", \"v\": 5}");
    g4_buf_free(&schema);
}

/* What cannot be held is said, and nothing that is valid is lost. */
static void g4_test_loosened(void)
{
    const char *schema = "{\"properties\":{\"a\":{\"$ref\":\"http://x.org/y\",\"description\":\"elsewhere\"},\"b\":{"
                         "\"type\":\"integer\"}},\"x-key\":1}";
    char text[200] = "";
    const g4_schema_options opt = { .closed = 1, .warn = g4_keep_warning, .user = text };
    g4_grammar *g;
    g4_error err = { 0 };
    const g4_status st = g4_grammar_schema(&g, NULL, &g4_real, schema, strlen(schema), &opt, NULL, &err);
    G4_EXPECT(st == G4_OK, "%s", err.message);
    G4_EXPECT(strcmp(text, "schema #/properties/a/$ref: http://x.org/y is not in the document: anything is allowed") ==
                  0,
              "%s", text);
    if (st != G4_OK) return;
    G4_EXPECT(g4_accepts(g, "{\"a\": [1], \"b\": 2}") == 1, "a is anything");
    G4_EXPECT(g4_accepts(g, "{\"b\": \"2\"}") == 0, "b is an integer");
    G4_EXPECT(g4_accepts(g, "{\"c\": 2}") == 0, "closed");
    g4_grammar_close(g);
}

/* The token that is one byte. */
static g4_token g4_byte_token(uint8_t byte)
{
    for (g4_token id = 0; id < (g4_token)g4_real.n_vocab; id++) {
        uint32_t len;
        const uint8_t *text = g4_tokenizer_text(&g4_real, (uint32_t)id, &len);
        if (len == 1 && text[0] == byte) return id;
    }
    return -1;
}

/* Strings that tell few characters from the others, or where one of few must come behind any four, or which are short,
 * or where nothing may come behind eleven: most of the vocabulary is taken without a look at each token, and no token
 * is taken wrongly. Walking to the tokens that differ takes 37,000 to 177,000 visits. */
static void g4_test_visits(void)
{
    static const struct {
        const char *pattern, *more, *begun;
        int most;
    } cases[] = { { "^[^a]*$", "", "\"", 25000 },
                  { "^[^b]*c[^b]*$", "", "\"", 25000 },
                  { "^([^,:& ]+ *:[^,:&]*)*$", "", "\"", 30000 },
                  { "^....-..-..T..:..Z$", "", "\"", 90000 },
                  { "^(.{4}|.{5}[0-9])$", "", "\"", 90000 },
                  { "^[A-Za-z0-9 &'()*,-./@]{1,32}$", "", "\"", 45000 },
                  { "[0-9a-f]+", ",\"minLength\":12,\"maxLength\":12", "\"0", 30000 } };
    g4_vocabulary_home home = { 0 };
    g4_real.home = &home;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char schema[100];
        g4_grammar *g;
        g4_grammar_counts before, n;
        g4_error err;
        int n_wrong = 0;
        snprintf(schema, sizeof schema, "{\"type\":\"string\",\"pattern\":\"%s\"%s}", cases[i].pattern, cases[i].more);
        if (g4_grammar_schema(&g, NULL, &g4_real, schema, strlen(schema), NULL, NULL, &err) != G4_OK) abort();
        int32_t state = g4_grammar_start(g);
        for (const char *p = cases[i].begun; *p != '\0'; p++)
            state = g4_grammar_read(g, state, g4_byte_token((uint8_t)*p));
        g4_grammar_count(g, &before);
        const uint32_t *mask = g4_grammar_mask(g, state);
        g4_grammar_count(g, &n);
        G4_EXPECT(mask != NULL && n.visited - before.visited <= (uint64_t)cases[i].most, "%s: %llu visits",
                  cases[i].pattern, (unsigned long long)(n.visited - before.visited));
        for (uint32_t id = 0; mask != NULL && id < g4_real.n_vocab; id++)
            n_wrong += (mask[id / 32] >> (id % 32) & 1) != (g4_grammar_read(g, state, (g4_token)id) != 0);
        G4_EXPECT(n_wrong == 0, "%s: mask and reading disagree on %d tokens", cases[i].pattern, n_wrong);
        g4_grammar_close(g);
    }
    g4_vocabulary_home_close(&home);
    g4_real.home = NULL;
}

/* What has no short answer ends at a stated amount of work, and an error says where. */
static void g4_test_cost(void)
{
    static const char *const rules[] = {
        "root ::= \")\" | (\"ab\"? \")\"? (root{2} | \"a\" (s{1,} | [^a] \"\"? .+ | (\"ab\" t{1,} | \"a\"+ [\\n\\x41] "
        "| root s+)){1,} (root? (\")\"{2} | \"é\" s* .){0,3} | \"a\"{0,3} | [^a]){0,3}){0,3} | s? \"é\"* (\"ab\" "
        "\"ab\" [^a]{0,3} | \"ab\" \"(\" | s \"\" \"(\"?)*){0,3} t{2} \"ab\"*\n"
        "s ::= \"ab\"* ((\"ab\" | (\"a\"{2} \"(\"* t+ | s{2} (\")\"? | [\\n\\x41]{2} [a-c] | [a-c]* \"a\" \"(\")?){2} "
        "[\\n\\x41]{1,} \"\"?){2} | root) | [^a]{2} | .{0,3}\n"
        "t ::= \"ab\"{0,3} \"a\"* .{0,3}\n",
        /* where each letter of a token makes expressions that no other token comes to */
        "root ::= [^b]* (\"a\" .{30} | \"e\" .{29} | \"i\" .{28} | \"o\" .{27} | \"s\" .{26} | \"t\" .{25} | \"n\" "
        ".{24}) \"b\"",
    };
    g4_grammar *g;
    g4_error err = { 0 };
    g4_buf many = { 0 };
    g4_refused(1, "{\"format\":\"time\",\"pattern\":\"(a*)*b\"}",
               "schema #: it takes too long to find out which strings meet it: any of them is allowed");
    for (int i = 0; i < 20; i++)
        g4_buf_fmt(&many, "%s{\"format\":\"time\",\"pattern\":\"(%c*)*b\"}", i == 0 ? "{\"prefixItems\":[" : ",",
                   'c' + i);
    g4_buf_str(&many, "]}");
    if (many.failed) abort();
    if (g4_grammar_schema(&g, NULL, &g4_small, many.data, many.len, NULL, NULL, &err) == G4_OK) {
        g4_grammar_counts n;
        g4_grammar_count(g, &n);
        G4_EXPECT(n.expressions < 200000, "%d expressions", n.expressions);
        g4_grammar_close(g);
    } else {
        G4_EXPECT(0, "%s", err.message);
    }
    g4_buf_free(&many);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        g4_grammar_counts n;
        if (g4_grammar_rules(&g, NULL, &g4_real, rules[i], strlen(rules[i]), NULL, &err) != G4_OK ||
            g4_grammar_enter(g, NULL, &err) != G4_OK)
            abort();
        G4_EXPECT(g4_grammar_mask(g, g4_grammar_start(g)) == NULL, "an answer to what takes seconds");
        g4_grammar_count(g, &n);
        G4_EXPECT(n.work > 4000000 && n.work < 4100000, "%llu steps", (unsigned long long)n.work);
        G4_EXPECT(g4_grammar_leave(g, &err) == G4_ERR_UNSUPPORTED &&
                      strstr(err.message,
                             "the grammar takes too much work: more than 4000000 steps for one token in rule ") ==
                          err.message,
                  "%s", err.message);
        g4_grammar_close(g);
    }
}

/* Every allocation of compiling and of the first mask fails once. */
static void g4_test_memory(void)
{
    const char *schema =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":4},\"b\":{"
        "\"enum\":[\"x\",1]},\"c\":{\"pattern\":"
        "\"^[a-c]+$\"},\"d\":{\"uniqueItems\":true,\"type\":\"array\",\"prefixItems\":[{\"enum\":[1,null]},"
        "{\"enum\":[null,1]},{\"enum\":[true,null]}],\"items\":false,\"minItems\":3}},"
        "\"additionalProperties\":{\"type\":\"number\",\"minimum\":0}}";
    int done = 0, errors = 0;
    for (long k = 0; k < 5000 && !done; k += k < 120 ? 1 : 13) {
        g4_failing f = { 0, k, 0 };
        g4_allocator al = g4_failing_allocator(&f);
        g4_grammar *g;
        g4_status st = g4_grammar_schema(&g, &al, &g4_small, schema, strlen(schema), NULL, NULL, NULL);
        if (st == G4_OK) {
            int32_t state = g4_grammar_start(g);
            if (state == 0 || g4_grammar_mask(g, state) == NULL) st = G4_ERR_MEMORY;
        }
        errors += st == G4_ERR_MEMORY;
        done = f.calls <= k;
        g4_grammar_close(g);
        if (f.live != 0 || (st != G4_OK && st != G4_ERR_MEMORY))
            G4_EXPECT(0, "allocation %ld: status %d, %ld live", k, st, f.live);
    }
    G4_EXPECT(done && errors > 60, "%d failures", errors);
}

int main(void)
{
    uint8_t *blob = g4_vocab_open(&g4_real, "tests/data/vocab.g4");
    uint8_t *small = g4_vocab_open(&g4_small, "tests/data/tokenizer_small.g4");
    G4_EXPECT(blob != NULL && small != NULL, "no vocabulary");
    if (blob != NULL && small != NULL) {
        g4_test_texts();
        g4_test_combinations();
        g4_vocab = &g4_small;
        g4_test_values();
        g4_test_distinct();
        g4_test_malformed();
        g4_test_members();
        g4_test_many();
        g4_test_limits();
        g4_test_alternatives();
        g4_test_large_tools();
        g4_vocab = &g4_real;
        g4_test_loosened();
        g4_test_errors();
        g4_test_visits();
        g4_test_cost();
        g4_test_memory();
    }
    free(blob);
    free(small);
    return g4_test_end();
}
