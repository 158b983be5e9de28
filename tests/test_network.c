/* Random small grammars, ambiguous, recursive on either side, with rules that may be empty: each mask and each end
 * against a naive recogniser (Earley's), token by token; and that what grows with the text grows no faster than it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sampler.h"
#include "test.h"

enum {
    RULES = 5,
    CHOICES = 3,
    ITEMS = 3,
    PIECES = 400,
    SYMBOLS = 400,
    PRODUCTIONS = 1200,
    LONGEST = 40,
    CHART = 20000
};

/* ---- The recogniser: productions over characters ------------------------------------------------- */

typedef struct { /* of a symbol: other symbols, or characters as negative numbers */
    int left, n, right[6];
} g4_production;
typedef struct {
    g4_production list[PRODUCTIONS];
    int n, n_symbols;
    int is_productive[SYMBOLS], is_empty[SYMBOLS];
} g4_productions;

static void g4_produce(g4_productions *g, int left, int n, const int *right)
{
    g4_production *p = &g->list[g->n++];
    p->left = left;
    p->n = n;
    for (int i = 0; i < n; i++) p->right[i] = right[i];
}

/* Keep the productions that lead to a text, and find which symbols may be empty. */
static void g4_productions_settle(g4_productions *g)
{
    for (int again = 1; again;) {
        again = 0;
        for (int i = 0; i < g->n; i++) {
            int productive = 1, empty = 1;
            for (int k = 0; k < g->list[i].n; k++) {
                const int x = g->list[i].right[k];
                productive &= x < 0 || g->is_productive[x];
                empty &= x >= 0 && g->is_empty[x];
            }
            again |= productive > g->is_productive[g->list[i].left] || empty > g->is_empty[g->list[i].left];
            g->is_productive[g->list[i].left] |= productive;
            g->is_empty[g->list[i].left] |= empty;
        }
    }
    int n = 0;
    for (int i = 0; i < g->n; i++) {
        int productive = 1;
        for (int k = 0; k < g->list[i].n; k++)
            productive &= g->list[i].right[k] < 0 || g->is_productive[g->list[i].right[k]];
        if (productive) g->list[n++] = g->list[i];
    }
    g->n = n;
}

typedef struct {
    int production, dot, origin;
} g4_item;
typedef struct { /* chart: items of each place in the text, one list behind the other */
    g4_item items[CHART];
    int first[LONGEST + 2];
    uint8_t seen[PRODUCTIONS][8][LONGEST + 1]; /* by production, dot, origin: of the last place */
} g4_chart;

static void g4_chart_add(g4_chart *c, int *n, int production, int dot, int origin)
{
    if (c->seen[production][dot][origin]) return;
    c->seen[production][dot][origin] = 1;
    if (*n == CHART) abort();
    c->items[(*n)++] = (g4_item) { production, dot, origin };
}

static void g4_chart_close(g4_chart *c, const g4_productions *g, int at, int *n)
{
    for (int i = c->first[at]; i < *n; i++) {
        const g4_item it = c->items[i];
        const g4_production *p = &g->list[it.production];
        if (it.dot < p->n && p->right[it.dot] >= 0) {
            const int x = p->right[it.dot];
            for (int k = 0; k < g->n; k++)
                if (g->list[k].left == x) g4_chart_add(c, n, k, 0, at);
            if (g->is_empty[x]) g4_chart_add(c, n, it.production, it.dot + 1, it.origin);
        } else if (it.dot == p->n && it.origin < at) {
            for (int k = c->first[it.origin]; k < c->first[it.origin + 1]; k++) {
                const g4_item w = c->items[k];
                const g4_production *q = &g->list[w.production];
                if (w.dot < q->n && q->right[w.dot] == p->left) g4_chart_add(c, n, w.production, w.dot + 1, w.origin);
            }
        }
    }
}

/* Can the text be completed? *whole: is it a text itself? */
static int g4_recognise(g4_chart *c, const g4_productions *g, const char *s, size_t len, int *whole)
{
    int n = 0;
    memset(c->seen, 0, (size_t)g->n * sizeof c->seen[0]);
    c->first[0] = 0;
    for (int k = 0; k < g->n; k++)
        if (g->list[k].left == 0) g4_chart_add(c, &n, k, 0, 0);
    g4_chart_close(c, g, 0, &n);
    for (size_t i = 0; i < len; i++) {
        c->first[i + 1] = n;
        memset(c->seen, 0, (size_t)g->n * sizeof c->seen[0]);
        for (int k = c->first[i]; k < c->first[i + 1]; k++) {
            const g4_item it = c->items[k];
            const g4_production *p = &g->list[it.production];
            if (it.dot < p->n && p->right[it.dot] == -(int)s[i])
                g4_chart_add(c, &n, it.production, it.dot + 1, it.origin);
        }
        g4_chart_close(c, g, (int)i + 1, &n);
    }
    *whole = 0;
    for (int k = c->first[len]; k < n; k++) {
        const g4_item it = c->items[k];
        const g4_production *p = &g->list[it.production];
        *whole |= p->left == 0 && it.dot == p->n && it.origin == 0;
    }
    return n > c->first[len];
}

/* ---- Random grammars, as rules and as productions -------------------------------------------------- */

/* A symbol for x repeated as the sign says. */
static int g4_random_repeat(g4_productions *g, int x, char sign)
{
    const int s = g->n_symbols++;
    if (sign != '+' && sign != '2') g4_produce(g, s, 0, NULL);
    if (sign == '+' || sign == '?') g4_produce(g, s, 1, &x);
    if (sign == '*' || sign == '+') g4_produce(g, s, 2, (const int[]) { x, s });
    if (sign == '2') { /* {2,3} */
        g4_produce(g, s, 2, (const int[]) { x, x });
        g4_produce(g, s, 3, (const int[]) { x, x, x });
    }
    return s;
}

static void g4_random_sign(g4_sampler *r, g4_productions *g, g4_buf *text, int *x)
{
    static const struct {
        const char *text;
        char sign;
    } signs[] = { { "*", '*' }, { "+", '+' }, { "?", '?' }, { "{2,3}", '2' } };
    const uint32_t k = g4_sampler_random(r, 10);
    if (k >= 4) return;
    g4_buf_str(text, signs[k].text);
    *x = g4_random_repeat(g, *x, signs[k].sign);
}

/* One item of a sequence, as text and as a symbol. */
static int g4_random_item(g4_sampler *r, g4_productions *g, g4_buf *text, int n_rules)
{
    static const char *const texts[] = { "a", "b", "c", "ab", "ba", "abc", "aa" };
    static const char *const classes[] = { "ab", "bc", "abc" };
    int x = g->n_symbols++;
    switch (g4_sampler_random(r, 5)) {
    case 0:
    case 1: {
        const char *s = texts[g4_sampler_random(r, 7)];
        int right[6];
        for (size_t i = 0; s[i] != '\0'; i++) right[i] = -(int)s[i];
        g4_produce(g, x, (int)strlen(s), right);
        g4_buf_fmt(text, "\"%s\"", s);
        break;
    }
    case 2: {
        const char *s = classes[g4_sampler_random(r, 3)];
        for (size_t i = 0; s[i] != '\0'; i++) g4_produce(g, x, 1, (const int[]) { -(int)s[i] });
        g4_buf_fmt(text, "[%s]", s);
        break;
    }
    case 3:
        if (g4_sampler_random(r, 2) == 0) { /* a group */
            int a, b;
            g4_buf_str(text, "(");
            a = g4_random_item(r, g, text, n_rules);
            g4_buf_str(text, " | ");
            b = g4_random_item(r, g, text, n_rules);
            g4_buf_str(text, ")");
            g4_produce(g, x, 1, &a);
            g4_produce(g, x, 1, &b);
            break;
        } /* fallthrough */
    default: {
        const int rule = (int)g4_sampler_random(r, (uint32_t)n_rules);
        g4_produce(g, x, 1, &rule);
        g4_buf_fmt(text, "r%d", rule);
    }
    }
    g4_random_sign(r, g, text, &x);
    return x;
}

/* Rule 0 is the root. Symbols below n_rules are the rules. */
static void g4_random_grammar(g4_sampler *r, g4_productions *g, g4_buf *text)
{
    const int n_rules = 1 + (int)g4_sampler_random(r, RULES);
    memset(g, 0, sizeof *g);
    g->n_symbols = n_rules;
    for (int rule = 0; rule < n_rules; rule++) {
        const int n = 1 + (int)g4_sampler_random(r, CHOICES);
        g4_buf_fmt(text, "r%d ::= ", rule);
        for (int c = 0; c < n; c++) {
            int right[6];
            const int n_items = (int)g4_sampler_random(r, ITEMS + 1);
            if (c > 0) g4_buf_str(text, " | ");
            for (int i = 0; i < n_items; i++) {
                right[i] = g4_random_item(r, g, text, n_rules);
                g4_buf_str(text, " ");
            }
            g4_produce(g, rule, n_items, right);
        }
        g4_buf_str(text, "\n");
    }
    g4_productions_settle(g);
}

/* ---- Masks against the recogniser -------------------------------------------------------------------- */

typedef struct {
    g4_token id;
    char text[16];
} g4_short_token;

/* The tokens of a, b and c, at most 15 of them. */
static int g4_find_pieces(const g4_tokenizer *t, g4_short_token *pieces)
{
    int n = 0;
    for (uint32_t id = 0; id < t->n_vocab && n < PIECES; id++) {
        uint32_t len;
        const uint8_t *s = g4_tokenizer_text(t, id, &len);
        int fits = len > 0 && len < sizeof pieces->text;
        for (uint32_t i = 0; i < len; i++) fits &= s[i] >= 'a' && s[i] <= 'c';
        if (!fits) continue;
        pieces[n].id = (g4_token)id;
        memset(pieces[n].text, 0, sizeof pieces[n].text);
        memcpy(pieces[n++].text, s, len);
    }
    return n;
}

/* One text at random, all masks on the way. Returns 0 when one is wrong. */
static int g4_compare_walk(g4_sampler *r, g4_grammar *g, const g4_productions *rules, const g4_short_token *pieces,
                           int n_pieces, g4_chart *chart, const g4_tokenizer *t, const char *source)
{
    char text[LONGEST + 8] = "";
    int32_t state = g4_grammar_start(g);
    while (strlen(text) < 12) {
        int whole, n_allowed = 0, n_bits = 0, pick = -1;
        if (!g4_recognise(chart, rules, text, strlen(text), &whole)) abort();
        const uint32_t *mask = g4_grammar_mask(g, state);
        if (mask == NULL || state == 0 || g4_grammar_accepts(g, state) != whole) {
            G4_EXPECT(0, "behind \"%s\" of\n%send %d, state %d", text, source, whole, state);
            return 0;
        }
        for (size_t i = 0; i < g4_mask_words((int)t->n_vocab); i++)
            for (uint32_t bits = mask[i]; bits != 0; bits &= bits - 1) n_bits++;
        for (int i = 0; i < n_pieces; i++) {
            char longer[LONGEST + 24];
            int ignored;
            snprintf(longer, sizeof longer, "%s%s", text, pieces[i].text);
            const int want = g4_recognise(chart, rules, longer, strlen(longer), &ignored);
            const int is = (int)(mask[pieces[i].id / 32] >> (pieces[i].id % 32) & 1);
            if (want != is) {
                G4_EXPECT(0, "behind \"%s\" \"%s\": %d instead of %d, of\n%s", text, pieces[i].text, is, want, source);
                return 0;
            }
            n_allowed += want;
            if (want && g4_sampler_random(r, (uint32_t)n_allowed) == 0) pick = i;
        }
        if (n_bits != n_allowed) G4_EXPECT(0, "behind \"%s\": %d tokens instead of %d", text, n_bits, n_allowed);
        if (pick < 0) break;
        state = g4_grammar_read(g, state, pieces[pick].id);
        strcat(text, pieces[pick].text);
        if (g4_sampler_random(r, 5) == 0) state = g4_grammar_forget(g, state); /* as long answers do */
    }
    return 1;
}

static void g4_test_random(const g4_engine *e, int n)
{
    const g4_tokenizer *t = g4_engine_tokenizer(e);
    static g4_short_token pieces[PIECES];
    g4_chart *chart = malloc(sizeof *chart);
    g4_productions *rules = malloc(sizeof *rules);
    const int n_pieces = g4_find_pieces(t, pieces);
    g4_sampler r = { .state = 1 };
    int n_made = 0, n_none = 0, ok = 1;
    G4_EXPECT(n_pieces > 20, "%d tokens", n_pieces);
    for (int i = 0; i < n && ok; i++) {
        g4_buf text = { 0 };
        g4_grammar *g;
        g4_error err = { 0 };
        g4_random_grammar(&r, rules, &text);
        const g4_status st = g4_grammar_from_rules(&g, e, text.data, text.len, NULL, &err);
        if (!rules->is_productive[0]) {
            G4_EXPECT(st == G4_ERR_ARGUMENT, "%s: %s", text.data, err.message);
            n_none++;
        } else {
            G4_EXPECT(st == G4_OK, "%s: %s", text.data, err.message);
            n_made++;
            for (int k = 0; k < 3 && ok && st == G4_OK; k++)
                ok = g4_compare_walk(&r, g, rules, pieces, n_pieces, chart, t, text.data);
        }
        g4_grammar_close(g);
        g4_buf_free(&text);
    }
    G4_EXPECT(n_made > n / 2 && n_none > 0, "%d grammars, %d without a text", n_made, n_none);
    free(chart);
    free(rules);
}

/* ---- Lists of items that differ ------------------------------------------------------------------------ */

static const char *const g4_items[] = { "a", "b", "aa", "ab", "ba", "bb" };
enum { N_ITEMS = sizeof g4_items / sizeof *g4_items };

/* Can what is in the list, as bits, be followed by this text up to the list's end? */
static int g4_list_goes_on(unsigned used, int n, const char *text)
{
    const char *head = n == 0 ? "(" : ",";
    if (*text == '\0') return 1;
    if (n > 0 && strcmp(text, ")") == 0) return 1;
    if (n == 0 && used == 0) {
        if (*text != '(') return 0;
        head = "(";
    }
    if (*text != *head) return 0;
    if (text[1] == '\0') return used != (1u << N_ITEMS) - 1;
    for (int i = 0; i < N_ITEMS; i++) {
        const size_t len = strlen(g4_items[i]), left = strlen(text + 1);
        if (used >> i & 1) continue;
        if (strncmp(text + 1, g4_items[i], left < len ? left : len) != 0) continue;
        if (left < len || g4_list_goes_on(used | 1u << i, n + 1, text + 1 + len)) return 1;
    }
    return 0;
}

/* The item, without the bracket or comma before it. */
static g4_re g4_list_item(g4_regular *r, const char *text, size_t n) { return g4_re_text(r, text + 1, n - 1); }

static g4_grammar *g4_list_grammar(const g4_engine *e)
{
    g4_grammar *g;
    g4_error err = { 0 };
    if (g4_grammar_new(&g, g4_engine_allocator(e), g4_engine_tokenizer(e), NULL, &err) != G4_OK) return NULL;
    g4_net *net = g4_grammar_net(g);
    g4_regular *r = net->regular;
    const g4_re item = g4_re_repeat(r, g4_re_range(r, 'a', 'b'), 1, 2);
    const int root = g4_net_rule(net, "root", 4), list = g4_net_rule(net, "list", 4);
    const int32_t some = g4_net_node(net);
    net->root = root;
    g4_net_call(net, net->rules[root].start, net->rules[root].end, list);
    g4_net_item(net, net->rules[list].start, some, g4_re_text(r, "(", 1), item);
    g4_net_item(net, some, some, g4_re_text(r, ",", 1), item);
    g4_net_lexeme(net, some, net->rules[list].end, g4_re_text(r, ")", 1));
    net->same_item = g4_list_item;
    if (g4_grammar_finish(&g, g, G4_OK, "list", &err) != G4_OK) G4_EXPECT(0, "%s", err.message);
    return g;
}

static void g4_test_lists(const g4_engine *e)
{
    const g4_tokenizer *t = g4_engine_tokenizer(e);
    g4_grammar *g = g4_list_grammar(e);
    g4_sampler r = { .state = 3 };
    int n_wrong = 0, n_ends = 0;
    for (int k = 0; k < 30 && g != NULL && n_wrong == 0; k++) {
        char text[64] = "";
        int32_t state = g4_grammar_start(g);
        while (state != 0 && !g4_grammar_accepts(g, state)) {
            const uint32_t *mask = g4_grammar_mask(g, state);
            uint32_t n = 0, pick = 0;
            if (mask == NULL) break;
            for (uint32_t id = 0; id < t->n_vocab; id++) {
                char longer[64 + 256] = "";
                uint32_t len;
                const uint8_t *s = g4_tokenizer_text(t, id, &len);
                int want = len > 0 && strchr("(),ab", s[0]) != NULL && s[0] != '\0';
                if (want) snprintf(longer, sizeof longer, "%s%.*s", text, (int)len, (const char *)s);
                want = want && strlen(longer) == strlen(text) + len && g4_list_goes_on(0, 0, longer);
                const int is = (int)(mask[id / 32] >> (id % 32) & 1);
                if (want != is && n_wrong++ == 0)
                    G4_EXPECT(0, "behind \"%s\": token %u, \"%s\": %d", text, (unsigned)id, longer, is);
                if (want && g4_sampler_random(&r, ++n) == 0) pick = id;
            }
            if (n == 0) break;
            uint32_t len;
            const uint8_t *s = g4_tokenizer_text(t, pick, &len);
            snprintf(text + strlen(text), sizeof text - strlen(text), "%.*s", (int)len, (const char *)s);
            state = g4_grammar_read(g, state, (g4_token)pick);
            if (g4_sampler_random(&r, 4) == 0) state = g4_grammar_forget(g, state);
        }
        n_ends += g4_grammar_accepts(g, state);
    }
    G4_EXPECT(n_wrong == 0 && n_ends == 30, "%d wrong, %d whole lists", n_wrong, n_ends);
    g4_grammar_close(g);
}

/* ---- Strings, of which the vocabulary has ready sets ------------------------------------------------------ */

/* Of rules, or of a schema, which is an object; NULL: *err says why. */
static g4_grammar *g4_grammar_of(const g4_engine *e, const char *text, g4_error *err)
{
    g4_grammar *g;
    const g4_schema_options strict = { .strict = 1 };
    const g4_status st = text[0] == '{' ? g4_grammar_from_schema(&g, e, text, strlen(text), &strict, err)
                                        : g4_grammar_from_rules(&g, e, text, 0, NULL, err);
    return st == G4_OK ? g : NULL;
}

/* Is it a token to compare? Of lists whose elements differ, each that is read costs much: those that end elements, and
 * few others. */
static int g4_is_compared(const g4_tokenizer *t, uint32_t id, int is_list)
{
    uint32_t n;
    const uint8_t *text = g4_tokenizer_text(t, id, &n);
    return is_list ? id % 64 == 0 || (n > 0 && memchr(text, '"', n) != NULL && id % 2 == 0) : id % 5 < 3;
}

/* Each mask along the text has the tokens that can be read there, and no other. */
static void g4_compare_reading(const g4_engine *e, const char *rules, const char *text)
{
    const g4_tokenizer *t = g4_engine_tokenizer(e);
    g4_error err = { 0 };
    g4_grammar *g = g4_grammar_of(e, rules, &err);
    int n_wrong = 0;
    if (g == NULL) G4_EXPECT(0, "%s: %s", rules, err.message);
    int32_t state = g != NULL ? g4_grammar_start(g) : 0;
    for (size_t i = 0; state != 0 && i <= strlen(text); i++) {
        const uint32_t *mask = g4_grammar_mask(g, state);
        for (uint32_t id = 0; id < t->n_vocab && mask != NULL; id++) {
            if (!g4_is_compared(t, id, rules[0] == '{')) continue;
            const int is = (int)(mask[id / 32] >> (id % 32) & 1), want = g4_grammar_read(g, state, (g4_token)id) != 0;
            if (is != want && n_wrong++ == 0)
                G4_EXPECT(0, "%s behind %.*s: token %u is %d", rules, (int)i, text, (unsigned)id, is);
        }
        if (i == strlen(text)) break;
        g4_tokens ids = { 0 };
        g4_tokenizer_encode(t, NULL, text + i, 1, 0, &ids, NULL, NULL);
        state = g4_grammar_read(g, state, ids.ids[0]);
        g4_free(NULL, ids.ids);
    }
    G4_EXPECT(state != 0 && n_wrong == 0, "%s: %d wrong", rules, n_wrong);
    g4_grammar_close(g);
}

static void g4_test_plain(const g4_engine *e)
{
    g4_compare_reading(e, "r ::= \"'\" [^'\\n]* \"'\"", "'ab c'");
    g4_compare_reading(e, "r ::= \"\\\"\" [^\"\\\\\\x00-\\x1f]{0,5} \"\\\"\" \",\"", "\"ab c\",");
    g4_compare_reading(e, "r ::= [^\"\\\\\\x00-\\x1f]{2,5} x\nx ::= \"\\\"\" x \"a\" | \",\"", "ab c,");
    g4_compare_reading(e, "r ::= [^\"\\\\\\x00-\\x1f]{0,4} \",\" x\nx ::= \"(\" x \")\" | [a-z]", "abcd,(a)");
    g4_compare_reading(e, "r ::= ([^\"\\\\\\x00-\\x1f] | \"ab\" \"cd\"){0,3} \"\\\"\"", "abcdabcd");
    g4_compare_reading(e, "r ::= [^\"\\x00-\\x1f]* \"foo\" [^\"\\x00-\\x1f]* \"\\\"\"", "a foot");
    g4_compare_reading(e, "r ::= .* \"q\" x\nx ::= \"(\" x \")\" | .{1,3}", "abq(q)");
}

static void g4_test_unique(const g4_engine *e)
{
    g4_compare_reading(e, "{\"uniqueItems\": true, \"type\": \"array\", \"items\": {\"type\": \"string\"}}",
                       "[\"a\", \"ab\",\"\"]");
    g4_compare_reading(e,
                       "{\"uniqueItems\": true, \"type\": \"array\", \"items\": {\"maxLength\": 1, \"pattern\": "
                       "\"^[ab]?$\", \"type\": \"string\"}, \"minItems\": 3}",
                       "[\"a\",\"\",\"b\"]");
    g4_compare_reading(e,
                       "{\"uniqueItems\": true, \"type\": \"array\", \"items\": {\"type\": [\"integer\", \"string\", "
                       "\"null\"]}}",
                       "[1,\"1\",null,\"a\",12]");
    g4_compare_reading(
        e,
        "{\"uniqueItems\": true, \"type\": \"array\", \"prefixItems\": [{\"enum\": [\"a\", \"b\"]}, "
        "{\"enum\": [\"b\", \"c\"]}, {\"enum\": [\"a\", \"c\"]}], \"items\": {\"type\": \"integer\"}, \"minItems\": 3}",
        "[\"b\",\"c\",\"a\",1]");
}

static g4_re g4_last_letter(g4_regular *r, const char *text, size_t n)
{
    return g4_re_range(r, (unsigned char)text[n - 1], (unsigned char)text[n - 1]);
}

/* Items of which there are too few, as no schema makes them: masks and reading agree up to where nothing follows. */
static void g4_test_dead_end(const g4_engine *e)
{
    const g4_tokenizer *t = g4_engine_tokenizer(e);
    const char *text = "a,b";
    g4_error err = { 0 };
    g4_grammar *g;
    int n_wrong = 0, n_allowed = 0;
    if (g4_grammar_new(&g, NULL, t, NULL, &err) != G4_OK) abort();
    g4_net *net = g4_grammar_net(g);
    net->root = g4_net_rule(net, NULL, 0);
    net->same_item = g4_last_letter;
    int32_t node = net->rules[net->root].start;
    for (int i = 0; i < 3; i++) {
        const int32_t to = i < 2 ? g4_net_node(net) : net->rules[net->root].end;
        g4_net_item(net, node, to, i > 0 ? g4_re_range(net->regular, ',', ',') : G4_RE_EMPTY,
                    g4_re_range(net->regular, 'a', 'b'));
        node = to;
    }
    if (g4_grammar_finish(&g, g, G4_OK, "items", &err) != G4_OK) abort();
    int32_t state = g4_grammar_start(g);
    for (size_t i = 0; state != 0 && i <= strlen(text); i++) {
        const uint32_t *mask = g4_grammar_mask(g, state);
        n_allowed = 0;
        for (uint32_t id = 0; id < t->n_vocab && mask != NULL; id++) {
            const int is = (int)(mask[id / 32] >> (id % 32) & 1), want = g4_grammar_read(g, state, (g4_token)id) != 0;
            n_wrong += is != want;
            n_allowed += is;
        }
        g4_tokens ids = { 0 };
        if (i == strlen(text)) break;
        g4_tokenizer_encode(t, NULL, text + i, 1, 0, &ids, NULL, NULL);
        state = g4_grammar_read(g, state, ids.ids[0]);
        g4_free(NULL, ids.ids);
    }
    G4_EXPECT(state != 0 && n_wrong == 0 && n_allowed == 0, "state %d, %d wrong, %d allowed", (int)state, n_wrong,
              n_allowed);
    g4_grammar_close(g);
}

/* ---- Growth ------------------------------------------------------------------------------------------ */

/* What a grammar holds behind `n` times the piece, masks made on the way. */
static g4_grammar_counts g4_counts_behind(const g4_engine *e, const char *rules, const char *begin, const char *piece,
                                          int n)
{
    g4_error err = { 0 };
    g4_grammar *g = g4_grammar_of(e, rules, &err);
    g4_grammar_counts counts = { 0 };
    g4_tokens ids = { 0 };
    g4_buf text = { 0 };
    g4_buf_str(&text, begin);
    for (int i = 0; i < n; i++) g4_buf_str(&text, piece);
    if (g == NULL ||
        g4_tokenizer_encode(g4_engine_tokenizer(e), NULL, text.data, text.len, 0, &ids, NULL, &err) != G4_OK)
        abort();
    int32_t state = g4_grammar_start(g);
    for (size_t i = 0; i < ids.n && state != 0; i++) {
        if (g4_grammar_mask(g, state) == NULL) abort();
        state = g4_grammar_read(g, state, ids.ids[i]);
    }
    G4_EXPECT(state != 0 && g4_grammar_mask(g, state) != NULL, "%s: not read to the end", rules);
    g4_grammar_count(g, &counts);
    g4_grammar_close(g);
    g4_free(NULL, ids.ids);
    g4_buf_free(&text);
    return counts;
}

static void g4_test_growth(const g4_engine *e)
{
    static const struct {
        const char *rules, *begin, *piece;
    } cases[] = {
        { "root ::= \"a\" root root | \"a\"", "", "a" },
        { "root ::= root root | \"a\"", "", "a" },
        { "e ::= \"(\" e \")\" | \"(\" e \"]\" | \"x\"", "", "(" },
        { "e ::= \"(\" e \")\" | \"(\" e \")\" e | \"(\" e \"]\" | \"x\"", "", "(" },
        { "e ::= e \"+\" e | e \"*\" e | \"(\" e \")\" | [0-9]+", "1", "+2*(3+4)" },
        { "e ::= t | e \"+\" t\nt ::= f | t \"*\" f\nf ::= \"(\" e \")\" | [0-9]+", "", "(1*2+" },
        { "root ::= item*\nitem ::= \"<\" root \">\" | \"<\" root \">\" \"!\"? | \"x\"", "", "<x" },
        { "s ::= a | b\na ::= \"x\" a \"y\" | \"z\"\nb ::= \"x\" b \"y\" \"y\" | \"z\"", "", "x" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const g4_grammar_counts a = g4_counts_behind(e, cases[i].rules, cases[i].begin, cases[i].piece, 50);
        const g4_grammar_counts b = g4_counts_behind(e, cases[i].rules, cases[i].begin, cases[i].piece, 200);
        G4_EXPECT(b.states <= 5 * a.states + 100 && b.stacks <= 5 * a.stacks + 100 &&
                      b.visited <= 6 * a.visited + 1000 && b.expressions <= a.expressions + 100,
                  "%s: 50 times %d states, %d stacks, %d expressions, %d visited; 200 times %d, %d, %d, %d",
                  cases[i].rules, a.states, a.stacks, a.expressions, (int)a.visited, b.states, b.stacks, b.expressions,
                  (int)b.visited);
    }
}

/* What a mask costs does not depend on how long an element is that must differ from others. */
static void g4_test_long_element(const g4_engine *e)
{
    const char *schema = "{\"uniqueItems\": true, \"type\": \"array\", \"items\": {\"type\": \"string\"}}";
    const g4_grammar_counts a = g4_counts_behind(e, schema, "[\"", "word ", 60);
    const g4_grammar_counts b = g4_counts_behind(e, schema, "[\"", "word ", 240);
    G4_EXPECT(b.expressions < 2 * a.expressions, "60 words: %d expressions, 240: %d", a.expressions, b.expressions);
}

int main(int argc, char **argv)
{
    g4_engine *e = NULL;
    g4_error err = { 0 };
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = "tests/data/vocab.g4", .n_threads = 1 }, &err) !=
        G4_OK) {
        G4_EXPECT(0, "%s", err.message);
        return g4_test_end();
    }
    g4_test_random(e, argc > 1 ? atoi(argv[1]) : 80);
    g4_test_lists(e);
    g4_test_plain(e);
    g4_test_unique(e);
    g4_test_dead_end(e);
    g4_test_growth(e);
    g4_test_long_element(e);
    g4_engine_close(e);
    return g4_test_end();
}
