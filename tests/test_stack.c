/* Every public call of chat/ that reads what others wrote works on a thread with a stack of 256 KB, whatever it is
 * given: nesting, long names, long lists and long chains end in a result or an error, within bounded time. Each input
 * is read in a process of its own, so that one that ends it is counted and the others go on. */
#include "constrained.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define G4_IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define G4_IS_SANITIZED 1
#endif
#endif
#ifdef G4_IS_SANITIZED /* frames are several times as large */
enum { STACK = 4 << 20, SECONDS = 120 };
#else
enum { STACK = 256 << 10, SECONDS = 10 };
#endif
enum { MAX_MASKS = 200 };
#define G4_MEMORY ((size_t)512 << 20)
#define G4_MODEL "tests/data/media/e2b.g4"

typedef enum { G4_DOOR_SCHEMA, G4_DOOR_TOOLS, G4_DOOR_RULES, G4_DOOR_CHAT, G4_DOOR_REPLY, G4_DOOR_BOXES } g4_door;

/* head, then n times open, middle, n times close, tail. In open and close @ is the number of the copy, ` the next. */
typedef struct {
    const char *name;
    g4_door door;
    int n;
    const char *head, *open, *middle, *close, *tail;
    const char *text; /* that goes through the masks of a grammar, n times over what follows a |; NULL: none */
} g4_hostile;

#define G4_NAME "\"properties\":{\""
#define G4_TOOL(parameters) "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":" parameters
#define G4_USER(content) "[{\"role\":\"user\",\"content\":" content

static const g4_hostile g4_hostiles[] = {
    { "[[[[", G4_DOOR_SCHEMA, 100000, "", "[", "", "", "", NULL },
    { "[[[[ ]]]]", G4_DOOR_SCHEMA, 100000, "", "[", "", "]", "", NULL },
    { "{{{{", G4_DOOR_SCHEMA, 100000, "", "{\"a\":", "", "", "", NULL },
    { "{{{{ }}}}", G4_DOOR_SCHEMA, 100000, "", "{\"a\":", "1", "}", "", NULL },
    { "deep items", G4_DOOR_SCHEMA, 100000, "", "{\"items\":", "{}", "}", "", NULL },
    { "deep items, 150", G4_DOOR_SCHEMA, 150, "", "{\"items\":", "{}", "}", "", "[" },
    { "deep items, 10,000", G4_DOOR_SCHEMA, 10000, "", "{\"items\":", "{}", "}", "", "[" },
    { "deep properties", G4_DOOR_SCHEMA, 10000, "", "{" G4_NAME "a\":", "{}", "}}", "", "{\"a\":" },
    { "deep not", G4_DOOR_SCHEMA, 10000, "", "{\"not\":", "{}", "}", "", NULL },
    { "deep allOf", G4_DOOR_SCHEMA, 10000, "", "{\"allOf\":[", "{}", "]}", "", NULL },
    { "deep anyOf", G4_DOOR_SCHEMA, 10000, "", "{\"anyOf\":[{\"type\":\"null\"},", "{}", "]}", "", NULL },
    { "deep oneOf", G4_DOOR_SCHEMA, 10000, "", "{\"oneOf\":[{\"type\":\"null\"},", "{\"const\":1}", "]}", "", NULL },
    { "deep if", G4_DOOR_SCHEMA, 10000, "", "{\"if\":", "{\"type\":\"null\"}", ",\"then\":false}", "", NULL },
    { "deep const", G4_DOOR_SCHEMA, 10000, "{\"const\":", "[", "", "]", "}", "[" },
    { "deep const, 100,000", G4_DOOR_SCHEMA, 100000, "{\"enum\":[", "{\"a\":", "1", "}", "]}", NULL },
    { "deep unknown keyword", G4_DOOR_SCHEMA, 100000, "{\"x-a\":", "[", "", "]", "}", NULL },
    { "deep patternProperties", G4_DOOR_SCHEMA, 5000, "", "{\"patternProperties\":{\"^a\":", "{}", "}}", "", NULL },
    { "deep unevaluatedProperties", G4_DOOR_SCHEMA, 5000, "", "{\"unevaluatedProperties\":", "{}", "}", "", NULL },
    { "deep propertyNames", G4_DOOR_SCHEMA, 5000, "", "{\"propertyNames\":", "{}", "}", "", NULL },
    { "deep contains", G4_DOOR_SCHEMA, 5000, "", "{\"contains\":", "{}", "}", "", NULL },
    { "deep $defs", G4_DOOR_SCHEMA, 100000, "", "{\"$defs\":{\"a\":", "{}", "}}", "", NULL },
    { "a long name", G4_DOOR_SCHEMA, 40000, "{" G4_NAME, "a", "", "", "\":{}},\"required\":[\"b\"]}", "{\"|a" },
    { "a long name that is required", G4_DOOR_SCHEMA, 10000, "{\"required\":[\"", "a", "", "", "\"]}", "{\"|a" },
    { "a long name, closed", G4_DOOR_SCHEMA, 40000, "{" G4_NAME, "a", "", "", "\":{}},\"additionalProperties\":false}",
      "{\"|a" },
    { "a long constant", G4_DOOR_SCHEMA, 40000, "{\"const\":\"", "a", "", "", "\"}", "\"|a" },
    { "a long constant forbidden", G4_DOOR_SCHEMA, 20000, "{\"not\":{\"const\":\"", "a", "", "", "\"}}", "\"|a" },
    { "a long name in a pattern of names", G4_DOOR_SCHEMA, 40000, "{\"patternProperties\":{\"", "a", "", "", "\":{}}}",
      "{\"|b" },
    { "a long type", G4_DOOR_SCHEMA, 40000, "{\"type\":\"", "a", "", "", "\"}", NULL },
    { "a long keyword", G4_DOOR_SCHEMA, 40000, "{\"", "a", "", "", "\":1}", NULL },
    { "a long format", G4_DOOR_SCHEMA, 40000, "{\"format\":\"", "a", "", "", "\"}", NULL },
    { "a long reference", G4_DOOR_SCHEMA, 40000, "{\"$ref\":\"#", "/a", "", "", "\"}", NULL },
    { "a long number", G4_DOOR_SCHEMA, 40000, "{\"minimum\":1", "0", "", "", "}", "1|0" },
    { "a long fraction", G4_DOOR_SCHEMA, 40000, "{\"maximum\":0.", "3", "", "", "}", "0.|3" },
    { "a long multiple", G4_DOOR_SCHEMA, 40000, "{\"multipleOf\":0.", "0", "", "", "1}", "0.|0" },
    { "many allOf", G4_DOOR_SCHEMA, 4000, "{\"allOf\":[{}", ",{\"minimum\":@}", "", "", "]}", "1" },
    { "many allOf of objects", G4_DOOR_SCHEMA, 4000, "{\"allOf\":[{}", ",{" G4_NAME "p@\":{}}}", "", "", "]}",
      "{\"p1" },
    { "many anyOf", G4_DOOR_SCHEMA, 4000, "{\"anyOf\":[{}", ",{\"required\":[\"p@\"]}", "", "", "]}", "{\"p1" },
    { "many oneOf", G4_DOOR_SCHEMA, 2000, "{\"oneOf\":[{\"type\":\"null\"}", ",{\"minLength\":@}", "", "", "]}",
      "\"|a" },
    { "many oneOf, apart", G4_DOOR_SCHEMA, 1000, "{\"oneOf\":[{\"const\":0}", ",{\"const\":\"k@\"}", "", "", "]}",
      "\"|k" },
    { "many if", G4_DOOR_SCHEMA, 2000, "{\"allOf\":[{}",
      ",{\"if\":{" G4_NAME "k@\":{\"const\":@}},\"required\":[\"k@\"]},\"then\":{\"required\":[\"r@\"]}}", "", "", "]}",
      "{\"k1" },
    { "many if on one member", G4_DOOR_SCHEMA, 1000, "{\"allOf\":[{}",
      ",{\"if\":{" G4_NAME "k\":{\"const\":@}},\"required\":[\"k\"]},\"then\":{\"required\":[\"r@\"]}}", "", "", "]}",
      "{\"k" },
    { "many not", G4_DOOR_SCHEMA, 2000, "{\"allOf\":[{}", ",{\"not\":{\"required\":[\"k@\",\"j@\"]}}", "", "", "]}",
      "{\"k1" },
    { "many references", G4_DOOR_SCHEMA, 5000, "{\"$ref\":\"#/$defs/d1\",\"$defs\":{\"d\":{}",
      ",\"d@\":{\"allOf\":[{\"$ref\":\"#/$defs/d@\"}]}", "", "", "}}", NULL },
    { "many required", G4_DOOR_SCHEMA, 10000, "{\"required\":[\"a\"", ",\"p@\"", "", "", "]}", "{\"a" },
    { "many prefixItems", G4_DOOR_SCHEMA, 5000, "{\"minItems\":4000,\"prefixItems\":[{}", ",{\"maxLength\":@}", "", "",
      "]}", "[1, " },
    { "many numbers", G4_DOOR_SCHEMA, 5000, "{\"enum\":[0.5", ",@", "", "", "]}", "1|0" },
    { "many objects", G4_DOOR_SCHEMA, 3000, "{\"enum\":[0", ",{\"a\":@}", "", "", "]}", "{\"a" },
    { "many enum", G4_DOOR_SCHEMA, 4000, "{\"enum\":[0", ",\"k@\"", "", "", "]}", "\"|k" },
    { "many properties", G4_DOOR_SCHEMA, 4000, "{" G4_NAME "a\":{}", ",\"p@\":{\"type\":\"integer\"}", "", "", "}}",
      "{\"p1" },
    { "many required", G4_DOOR_SCHEMA, 4000, "{\"required\":[\"a\"", ",\"p@\"", "", "", "]}", "{\"p1" },
    { "many dependentRequired", G4_DOOR_SCHEMA, 2000, "{\"dependentRequired\":{\"a\":[]", ",\"p@\":[\"p`\"]", "", "",
      "}}", "{\"p1" },
    { "many patternProperties", G4_DOOR_SCHEMA, 2000, "{\"patternProperties\":{\"a\":{}", ",\"^p@.*x\":{}", "", "",
      "}}", "{\"p1" },
    { "many patterns together", G4_DOOR_SCHEMA, 500, "{\"allOf\":[{}", ",{\"pattern\":\"a.{@}b\"}", "", "", "]}",
      "\"|a" },
    { "many prefixItems", G4_DOOR_SCHEMA, 4000, "{\"prefixItems\":[{}", ",{\"const\":@}", "", "", "]}", "[0," },
    { "a chain of references", G4_DOOR_SCHEMA, 5000, "{\"$ref\":\"#/$defs/d0\",\"$defs\":{\"x\":{}",
      ",\"d@\":{\"$ref\":\"#/$defs/d`\"}", "", "", ",\"d5000\":{\"type\":\"null\"}}}", "null" },
    { "a chain of items", G4_DOOR_SCHEMA, 5000, "{\"$ref\":\"#/$defs/d0\",\"$defs\":{\"x\":{}",
      ",\"d@\":{\"items\":{\"$ref\":\"#/$defs/d`\"}}", "", "", ",\"d5000\":{\"type\":\"null\"}}}", "[" },
    { "a chain of allOf", G4_DOOR_SCHEMA, 5000, "{\"$ref\":\"#/$defs/d0\",\"$defs\":{\"x\":{}",
      ",\"d@\":{\"allOf\":[{\"minimum\":@},{\"$ref\":\"#/$defs/d`\"}]}", "", "", ",\"d5000\":{\"type\":\"null\"}}}",
      "1" },
    { "a chain of not", G4_DOOR_SCHEMA, 5000, "{\"$ref\":\"#/$defs/d0\",\"$defs\":{\"x\":{}",
      ",\"d@\":{\"not\":{\"$ref\":\"#/$defs/d`\"}}", "", "", ",\"d5000\":{\"type\":\"null\"}}}", "1" },
    { "a circle of references", G4_DOOR_SCHEMA, 5000, "{\"$ref\":\"#/$defs/d0\",\"$defs\":{\"x\":{}",
      ",\"d@\":{\"$ref\":\"#/$defs/d`\"}", "", "", ",\"d5000\":{\"$ref\":\"#/$defs/d0\"}}}", "1" },
    { "a reference to itself", G4_DOOR_SCHEMA, 1, "{\"$ref\":\"#\"}", "", "", "", "", "1" },
    { "not itself", G4_DOOR_SCHEMA, 1, "{\"not\":{\"$ref\":\"#\"}}", "", "", "", "", "1" },
    { "any value, deep text", G4_DOOR_SCHEMA, 50000, "{}", "", "", "", "", "[" },
    { "any value, deep objects", G4_DOOR_SCHEMA, 20000, "{}", "", "", "", "", "{\"a\":" },
    { "a tree, deep text", G4_DOOR_SCHEMA, 20000, "{\"anyOf\":[{\"type\":\"null\"},{\"items\":{\"$ref\":\"#\"}}]}", "",
      "", "", "", "[" },
    { "huge counts", G4_DOOR_SCHEMA, 1,
      "{\"minItems\":1e9,\"items\":{\"minItems\":1e9,\"items\":{\"minLength\":1000000000,\"type\":\"string\"}}}", "",
      "", "", "", "[" },
    { "counts in each other", G4_DOOR_SCHEMA, 30, "", "{\"minItems\":99999,\"items\":", "{}", "}", "", "[" },
    { "unique items in each other", G4_DOOR_SCHEMA, 3000, "{\"uniqueItems\":true,\"items\":{\"type\":\"integer\"}}", "",
      "", "", "", "1, 2, 3, " },
    { "pattern ((((", G4_DOOR_SCHEMA, 100000, "{\"pattern\":\"", "(", "", "", "\"}", NULL },
    { "pattern (((( ))))", G4_DOOR_SCHEMA, 100000, "{\"pattern\":\"", "(", "a", ")", "\"}", "\"|a" },
    { "pattern ((((a)*)*)*", G4_DOOR_SCHEMA, 5000, "{\"pattern\":\"^", "(", "a", ")*", "$\"}", "\"|a" },
    { "pattern ((((a|b)|b)|b)", G4_DOOR_SCHEMA, 20000, "{\"pattern\":\"", "(", "a", "|b)", "\"}", "\"|a" },
    { "pattern (a(a(a", G4_DOOR_SCHEMA, 20000, "{\"pattern\":\"^", "(a", "", ")?", "$\"}", "\"|a" },
    { "pattern (?=(?=", G4_DOOR_SCHEMA, 5000, "{\"pattern\":\"", "(?=", "a", ")", "\"}", "\"|a" },
    { "pattern (?!(?!", G4_DOOR_SCHEMA, 5000, "{\"pattern\":\"", "(?!", "a", ")", "\"}", "\"|a" },
    { "pattern [[[[", G4_DOOR_SCHEMA, 100000, "{\"pattern\":\"", "[", "", "", "\"}", NULL },
    { "pattern [[[[ ]", G4_DOOR_SCHEMA, 100000, "{\"pattern\":\"", "[", "", "", "]\"}", "\"|[" },
    { "pattern a|a|a", G4_DOOR_SCHEMA, 100000, "{\"pattern\":\"", "a|", "", "", "b\"}", "\"|a" },
    { "pattern aaaa", G4_DOOR_SCHEMA, 100000, "{\"pattern\":\"", "a", "", "", "\"}", "\"|b" },
    { "pattern aaaa, read", G4_DOOR_SCHEMA, 1000, "{\"pattern\":\"", "a", "", "", "\"}", "\"|a" },
    { "pattern ....", G4_DOOR_SCHEMA, 20000, "{\"pattern\":\"^", ".", "", "", "$\"}", "\"|a" },
    { "pattern a?a?a?", G4_DOOR_SCHEMA, 10000, "{\"pattern\":\"^", "a?", "", "", "$\"}", "\"|a" },
    { "pattern .*.*.*", G4_DOOR_SCHEMA, 20000, "{\"pattern\":\"^", ".*", "", "", "b$\"}", "\"|a" },
    { "pattern counts", G4_DOOR_SCHEMA, 60, "{\"pattern\":\"^", "(", "a", "{2,9}){3,7}", "$\"}", "\"|a" },
    { "pattern (a){99000}", G4_DOOR_SCHEMA, 2000, "{\"pattern\":\"^(a){99000}$\"}", "", "", "", "", "\"|a" },
    { "pattern (a|aa){1,9000}", G4_DOOR_SCHEMA, 1000, "{\"pattern\":\"^(a|aa){1,9000}$\"}", "", "", "", "", "\"|a" },
    { "pattern a{,,", G4_DOOR_SCHEMA, 40000, "{\"pattern\":\"", "a{1", "", "", "\"}", "\"|a" },
    { "pattern \\\\p{", G4_DOOR_SCHEMA, 20000, "{\"pattern\":\"", "\\\\p{L}", "", "", "\"}", "\"|1" },
    { "pattern of backslashes", G4_DOOR_SCHEMA, 100000, "{\"pattern\":\"", "\\\\", "", "", "\"}", NULL },
    { "minitems three deep", G4_DOOR_SCHEMA, 200,
      "{\"minItems\":4000,\"items\":{\"minItems\":4000,\"items\":{\"minItems\":4000,\"items\":{\"type\":\"integer\"}}}"
      "}",
      "", "", "", "", "[" },
    { "tool, deep items", G4_DOOR_TOOLS, 50000, G4_TOOL(""), "{\"items\":", "{}", "}", "}}]", NULL },
    { "tool, deep properties", G4_DOOR_TOOLS, 5000, G4_TOOL(""), "{" G4_NAME "a\":", "{}", "}}", "}}]", "call:f{a:" },
    { "tool, a long name", G4_DOOR_TOOLS, 40000, "[{\"name\":\"", "a", "", "", "\",\"parameters\":{}}]", NULL },
    { "tool, a long property", G4_DOOR_TOOLS, 40000, G4_TOOL("{" G4_NAME), "a", "", "",
      "\":{}},\"required\":[\"b\"]}}}]", "call:f{" },
    { "many tools", G4_DOOR_TOOLS, 4000, "[{\"name\":\"g\",\"parameters\":{}}",
      ",{\"name\":\"f@\",\"parameters\":{\"type\":\"object\"}}", "", "", "]", "call:f1" },
    { "tools [[[[", G4_DOOR_TOOLS, 100000, "", "[", "", "", "", NULL },
    { "tools {{{{", G4_DOOR_TOOLS, 100000, "[", "{\"function\":", "{}", "}", "]", NULL },
    { "rules ((((", G4_DOOR_RULES, 100000, "root ::= ", "(", "", "", "", NULL },
    { "rules (((( ))))", G4_DOOR_RULES, 100000, "root ::= ", "(", "\"a\"", ")", "", "a" },
    { "rules ((((a)*)*)*", G4_DOOR_RULES, 5000, "root ::= ", "(", "\"a\"", ")*", "", "a" },
    { "rules (a (a (a", G4_DOOR_RULES, 20000, "root ::= ", "(\"a\" ", "\"b\"", ")?", "", "a" },
    { "rules [[[[", G4_DOOR_RULES, 100000, "root ::= ", "[", "", "", "", NULL },
    { "rules a | a", G4_DOOR_RULES, 100000, "root ::= \"b\"", " | \"a\"", "", "", "", "a" },
    { "rules, a long text", G4_DOOR_RULES, 100000, "root ::= \"", "a", "", "", "\"", "a" },
    { "rules, a long name", G4_DOOR_RULES, 40000, "root ::= ", "a", "", "", "", NULL },
    { "rules, a chain", G4_DOOR_RULES, 5000, "root ::= r0\n", "r@ ::= r`\n", "", "", "r5000 ::= \"a\"\n", "a" },
    { "rules, a chain with texts", G4_DOOR_RULES, 5000, "root ::= r0\n", "r@ ::= \"a\" r` \"b\"\n", "", "",
      "r5000 ::= \"a\"\n", "a" },
    { "rules, a circle", G4_DOOR_RULES, 5000, "root ::= r0\n", "r@ ::= r` | \"a\"\n", "", "",
      "r5000 ::= r0 \"b\" | \"c\"\n", "c" },
    { "rules, left recursion", G4_DOOR_RULES, 20000, "root ::= root \"a\" | \"a\"", "", "", "", "", "a" },
    { "rules, s ::= a s s", G4_DOOR_RULES, 3000, "root ::= \"a\" root root | \"a\"", "", "", "", "", "a" },
    { "rules, s ::= s s", G4_DOOR_RULES, 3000, "root ::= root root | \"a\"", "", "", "", "", "a" },
    { "rules, brackets", G4_DOOR_RULES, 20000, "root ::= \"(\" root \")\" | \"a\"", "", "", "", "", "(" },
    { "rules, two endings", G4_DOOR_RULES, 3000, "root ::= \"(\" root \")\" | \"(\" root \"]\" | \"a\"", "", "", "", "",
      "(" },
    { "rules, huge counts", G4_DOOR_RULES, 3000, "root ::= ((\"a\"{99999}){99999}){99999}", "", "", "", "", "a" },
    { "rules, a long comment", G4_DOOR_RULES, 100000, "#", "#", "", "", "\nroot ::= \"a\"", "a" },
    { "chat [[[[", G4_DOOR_CHAT, 100000, "", "[", "", "", "", NULL },
    { "chat, deep content", G4_DOOR_CHAT, 100000, G4_USER(""), "[", "", "]", "}]", NULL },
    { "chat, deep parts", G4_DOOR_CHAT, 50000, G4_USER(""), "[{\"type\":\"text\",\"text\":", "\"a\"", "}]", "}]",
      NULL },
    { "chat, deep arguments", G4_DOOR_CHAT, 50000,
      "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
      "\"arguments\":{\"a\":",
      "[", "1", "]", "}}}]}]", NULL },
    { "chat, deep text of arguments", G4_DOOR_CHAT, 50000,
      "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\","
      "\"arguments\":\"{\\\"a\\\":",
      "[", "1", "]", "}\"}}]}]", NULL },
    { "chat, deep answer of a tool", G4_DOOR_CHAT, 50000,
      "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"1\",\"function\":{"
      "\"name\":\"f\",\"arguments\":{}}}],\"tool_responses\":[{\"name\":\"f\",\"response\":",
      "[", "1", "]", "}]}]", NULL },
    { "chat, deep tool", G4_DOOR_CHAT, 5000,
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":" G4_TOOL(""),
      "{\"type\":\"object\"," G4_NAME "a\":", "{}", "}}", "}}]}", NULL },
    { "chat, many messages", G4_DOOR_CHAT, 20000, "[{\"role\":\"user\",\"content\":\"a\"}",
      ",{\"role\":\"user\",\"content\":\"b@\"}", "", "", "]", NULL },
    { "chat, many parts", G4_DOOR_CHAT, 20000, G4_USER("["), "{\"type\":\"text\",\"text\":\"b@\"},",
      "{\"type\":\"text\",\"text\":\"c\"}", "", "]}]", NULL },
    { "chat, a long text", G4_DOOR_CHAT, 200000, G4_USER("\""), "a", "", "", "\"}]", NULL },
    { "chat, a long role", G4_DOOR_CHAT, 40000, "[{\"role\":\"", "a", "", "", "\",\"content\":\"a\"}]", NULL },
    { "reply, deep call", G4_DOOR_REPLY, 20000, "<|tool_call>call:f{a:", "{a:", "1", "}", "}<tool_call|>", NULL },
    { "reply, deep lists", G4_DOOR_REPLY, 20000, "<|tool_call>call:f{a:", "[", "1", "]", "}<tool_call|>", NULL },
    { "reply, unclosed", G4_DOOR_REPLY, 20000, "<|tool_call>call:f{a:", "[", "", "", "", NULL },
    { "reply, JSON in a call", G4_DOOR_REPLY, 20000, "<|tool_call>call:f{", "{\"a\":", "1", "}", "}<tool_call|>",
      NULL },
    { "reply, calls in calls", G4_DOOR_REPLY, 5000, "", "<|tool_call>call:f{", "", "", "", NULL },
    { "reply, thoughts in thoughts", G4_DOOR_REPLY, 5000, "", "<|channel>thought\n", "", "<channel|>", "", NULL },
    { "reply, a long name", G4_DOOR_REPLY, 40000, "<|tool_call>call:", "a", "", "", "{}<tool_call|>", NULL },
    { "boxes [[[[", G4_DOOR_BOXES, 100000, "", "[", "", "", "", NULL },
    { "boxes [[[[ ]]]]", G4_DOOR_BOXES, 100000, "```json\n", "[", "", "]", "\n```", NULL },
    { "many boxes", G4_DOOR_BOXES, 10000, "[{\"box_2d\":[1,2,3,4],\"label\":\"a\"}",
      ",{\"box_2d\":[1,2,3,4],\"label\":\"b@\"}", "", "", "]", NULL },
};
enum { N_INPUTS = sizeof g4_hostiles / sizeof g4_hostiles[0] };

/* ---- One input ------------------------------------------------------------------------------------------ */

static void g4_add_copies(g4_buf *b, const char *s, int n)
{
    const size_t plain = strcspn(s, "@`");
    if (s[0] == '\0') return;
    for (int i = 0; i < n; i++) {
        if (s[plain] == '\0') {
            g4_buf_add(b, s, plain);
            continue;
        }
        for (const char *p = s; *p != '\0'; p++) {
            if (*p == '@' || *p == '`')
                g4_buf_fmt(b, "%d", i + (*p == '`'));
            else
                g4_buf_add(b, p, 1);
        }
    }
}

static void g4_hostile_text(g4_buf *b, const g4_hostile *h)
{
    g4_buf_str(b, h->head);
    g4_add_copies(b, h->open, h->n);
    g4_buf_str(b, h->middle);
    g4_add_copies(b, h->close, h->n);
    g4_buf_str(b, h->tail);
}

/* The text, n times over, goes through the masks as far as it fits; masks are asked for at the first places, and at
 * some later ones. */
static void g4_follow_text(const g4_engine *e, g4_grammar *grammar, const char *text, int n)
{
    g4_guide *guide = NULL;
    const char *bar = strchr(text, '|'), *repeated = bar != NULL ? bar + 1 : text;
    const size_t cap = strlen(text) * (size_t)n + 1;
    g4_token *ids = malloc(sizeof *ids * cap);
    const int n_vocab = (int)g4_engine_tokenizer(e)->n_vocab;
    uint32_t *mask = calloc(g4_mask_words(n_vocab), sizeof *mask);
    g4_buf all = { 0 };
    size_t n_ids = 0;
    g4_buf_add(&all, text, bar != NULL ? (size_t)(bar - text) : 0);
    g4_add_copies(&all, repeated, n);
    if (ids == NULL || mask == NULL || all.failed) abort();
    if (g4_guide_open_text(&guide, e, grammar, NULL) == G4_OK &&
        g4_tokenize(e, all.data, all.len, 0, ids, cap, &n_ids, NULL) == G4_OK) {
        const g4_constraint *c = g4_guide_constraint(guide);
        const size_t step = n_ids / MAX_MASKS + 1;
        for (size_t i = 0; i < n_ids; i++) {
            const int is_asked = i < MAX_MASKS || i % step == 0 || i + 1 == n_ids;
            if (is_asked && c->mask(c->user, mask, n_vocab) != 0) break;
            if (is_asked && (mask[ids[i] / 32] >> (ids[i] % 32) & 1) == 0) break;
            c->accept(c->user, ids[i]);
        }
    }
    g4_guide_close(guide);
    g4_buf_free(&all);
    free(mask);
    free(ids);
}

static void g4_read_grammar(g4_engine *e, const g4_hostile *h, const char *text, size_t len, g4_exactness how)
{
    g4_grammar *g = NULL;
    g4_status st = h->door == G4_DOOR_RULES   ? g4_grammar_from_rules(&g, e, text, len, NULL, NULL)
                   : h->door == G4_DOOR_TOOLS ? g4_constrained_open_tools(&g, e, text, how, NULL)
                                              : g4_constrained_open(&g, e, text, how, NULL, NULL);
    if (st == G4_OK && h->text != NULL) g4_follow_text(e, g, h->text, h->n);
    g4_grammar_close(g);
}

static void g4_read_chat(g4_engine *e, const char *text, size_t len)
{
    for (int openai = 0; openai < 2; openai++) {
        g4_chat *c = NULL;
        g4_guide *guide = NULL;
        if (g4_chat_parse(&c, e, text, len, &(g4_chat_options) { .openai = openai }, NULL) == G4_OK)
            g4_guide_open(&guide, c, NULL, NULL);
        g4_guide_close(guide);
        g4_chat_close(c);
    }
}

static void g4_read_reply(g4_engine *e, const char *text, size_t len)
{
    g4_response *r = NULL;
    g4_token *ids = malloc(sizeof *ids * (len + 1));
    size_t n = 0;
    if (ids != NULL && g4_tokenize(e, text, len, 1, ids, len + 1, &n, NULL) == G4_OK &&
        g4_response_open(&r, e, 0, NULL, NULL, NULL) == G4_OK) {
        for (size_t i = 0; i < n; i++) g4_response_push(r, ids[i]);
        g4_response_finish(r, NULL);
    }
    g4_response_close(r);
    free(ids);
}

static void *g4_read_hostile(void *user)
{
    const g4_hostile *h = user;
    g4_engine *e = NULL;
    g4_buf text = { 0 };
    g4_hostile_text(&text, h);
    if (text.failed ||
        g4_engine_open(&e, &(g4_engine_options) { .model_path = G4_MODEL, .n_threads = 1 }, NULL) != G4_OK)
        _exit(3);
    g4_box *boxes = NULL;
    int n;
    switch (h->door) {
    case G4_DOOR_SCHEMA:
    case G4_DOOR_TOOLS:
        g4_read_grammar(e, h, text.data, text.len, G4_STRICT);
        g4_read_grammar(e, h, text.data, text.len, G4_LOOSENED);
        break;
    case G4_DOOR_RULES: g4_read_grammar(e, h, text.data, text.len, G4_STRICT); break;
    case G4_DOOR_CHAT: g4_read_chat(e, text.data, text.len); break;
    case G4_DOOR_REPLY: g4_read_reply(e, text.data, text.len); break;
    case G4_DOOR_BOXES:
        if (g4_boxes_read(&boxes, &n, text.data, text.len, 640, 480, NULL, NULL) == G4_OK)
            g4_boxes_free(boxes, n, NULL);
        break;
    }
    g4_buf_free(&text);
    g4_engine_close(e);
    return NULL;
}

/* ---- Each in a process of its own ---------------------------------------------------------------------------- */

/* Never returns. */
static void g4_run_hostile(const g4_hostile *h)
{
    const struct rlimit seconds = { SECONDS, SECONDS + 1 }, none = { 0, 0 };
    pthread_t thread;
    pthread_attr_t attr;
    g4_hostile copy = *h;
    setrlimit(RLIMIT_CPU, &seconds);
    setrlimit(RLIMIT_CORE, &none);
#ifndef G4_IS_SANITIZED
    const struct rlimit memory = { G4_MEMORY, G4_MEMORY };
    setrlimit(RLIMIT_AS, &memory);
#endif
    if (pthread_attr_init(&attr) != 0 || pthread_attr_setstacksize(&attr, STACK) != 0 ||
        pthread_create(&thread, &attr, g4_read_hostile, &copy) != 0 || pthread_join(thread, NULL) != 0)
        _exit(4);
    _exit(0);
}

int main(int argc, char **argv)
{
    for (int i = 0; i < N_INPUTS; i++) {
        const g4_hostile *h = &g4_hostiles[i];
        struct rusage used;
        int status = -1;
        if (argc > 1 && strstr(h->name, argv[1]) == NULL) continue;
        fflush(stdout);
        const pid_t child = fork();
        if (child == 0) g4_run_hostile(h);
        const int is_over = child > 0 && wait4(child, &status, 0, &used) == child;
        if (argc > 1 && is_over)
            printf("%-32s %6.2f s %6ld MB\n", h->name,
                   (double)used.ru_utime.tv_sec + 1e-6 * (double)used.ru_utime.tv_usec, used.ru_maxrss / 1024);
        G4_EXPECT(is_over && status == 0, "%s: %s %d", h->name,
                  !is_over              ? "no process"
                  : WIFSIGNALED(status) ? strsignal(WTERMSIG(status))
                                        : "exit status",
                  WIFEXITED(status) ? WEXITSTATUS(status) : 0);
    }
    return g4_test_end();
}
