/* test_regular.c - expressions over bytes: random ones against a list of all short texts, counts, texts, what has no
 * text, clamps, forgetting, memory that runs out, calls that are ended. */
#include <string.h>

#include "chat/chat.h"
#include "failing.h"
#include "test.h"

/* ---- Random expressions and the texts they have -------------------------------------------------- */

enum { LONGEST = 6, N_TEXTS = (1 << (LONGEST + 1)) - 1 }; /* of a and b */

/* A text of n letters whose letters are the bits of v, the first one highest: number 2^n - 1 + v. */
typedef struct {
    unsigned char has[N_TEXTS];
} language;

static int text_number(int n, int v) { return (1 << n) - 1 + v; }

static void language_concat(language *out, const language *x, const language *y)
{
    memset(out, 0, sizeof *out);
    for (int n = 0; n <= LONGEST; n++)
        for (int v = 0; v < 1 << n; v++)
            for (int k = 0; k <= n; k++)
                if (x->has[text_number(k, v >> (n - k))] && y->has[text_number(n - k, v & ((1 << (n - k)) - 1))])
                    out->has[text_number(n, v)] = 1;
}

static uint32_t seed = 12345;
static int pick(int n)
{
    seed = seed * 1664525u + 1013904223u;
    return (int)((seed >> 16) % (uint32_t)n);
}

static void language_repeat(language *out, const language *x, int min, int max)
{
    language power = { { 1 } }, next;
    memset(out, 0, sizeof *out);
    for (int k = 0; k <= (max < 0 ? min + LONGEST : max); k++) {
        for (int i = 0; i < N_TEXTS && k >= min; i++) out->has[i] |= power.has[i];
        language_concat(&next, &power, x);
        power = next;
    }
}

static g4_re random_re(g4_regular *r, language *out, int depth)
{
    language x, y;
    const int kind = depth == 0 ? pick(2) : pick(9);
    memset(out, 0, sizeof *out);
    if (kind == 0) {
        const int which = 1 + pick(3);
        out->has[1] = (unsigned char)(which & 1);
        out->has[2] = (unsigned char)(which >> 1);
        return g4_re_range(r, which == 2 ? 'b' : 'a', which == 1 ? 'a' : 'b');
    }
    if (kind == 1) {
        const int n = pick(4), v = pick(1 << n);
        char text[4] = "";
        for (int i = 0; i < n; i++) text[i] = (char)('a' + (v >> (n - 1 - i) & 1));
        out->has[text_number(n, v)] = 1;
        return g4_re_text(r, text, (size_t)n);
    }
    const g4_re a = random_re(r, &x, depth - 1);
    if (kind == 2 || kind == 3) {
        const int min = pick(4), max = pick(3) == 0 ? -1 : min + pick(4);
        language_repeat(out, &x, min, max);
        return g4_re_repeat(r, a, min, max);
    }
    if (kind == 4) {
        for (int i = 0; i < N_TEXTS; i++) out->has[i] = !x.has[i];
        return g4_re_not(r, a);
    }
    const g4_re b = random_re(r, &y, depth - 1);
    for (int i = 0; i < N_TEXTS; i++) out->has[i] = kind == 5 ? x.has[i] && y.has[i] : x.has[i] || y.has[i];
    if (kind == 5) return g4_re_and(r, a, b);
    if (kind < 8) return g4_re_or(r, a, b);
    language_concat(out, &x, &y);
    return g4_re_concat(r, a, b);
}

/* Every text up to LONGEST, from the state behind its first n letters. Returns how many are wrong. */
static int check_texts(g4_regular *r, g4_re x, const language *l, int n, int v)
{
    int wrong = g4_re_accepts(r, x) != l->has[text_number(n, v)];
    const g4_re a = g4_re_step(r, x, 'a'), b = g4_re_step(r, x, 'b');
    const g4_re *row = g4_re_row(r, x);
    wrong += row['a'] != a || row['b'] != b;
    wrong += x != G4_RE_NONE && !g4_re_accepts(r, x) && g4_re_is_none(r, x) != 0; /* states have a text */
    if (n == LONGEST) return wrong;
    return wrong + check_texts(r, a, l, n + 1, v * 2) + check_texts(r, b, l, n + 1, v * 2 + 1);
}

/* How many texts of up to n letters one of two expressions can begin with, and the other cannot. */
static int count_apart(g4_regular *r, g4_re x, g4_re y, int n)
{
    const int apart = (x == G4_RE_NONE) != (y == G4_RE_NONE);
    if (n == 0 || x == G4_RE_NONE || y == G4_RE_NONE) return apart;
    return apart + count_apart(r, g4_re_step(r, x, 'a'), g4_re_step(r, y, 'a'), n - 1) +
           count_apart(r, g4_re_step(r, x, 'b'), g4_re_step(r, y, 'b'), n - 1);
}

static void test_random(void)
{
    int wrong = 0, apart = 0, empty = 0, lost = 0;
    for (int i = 0; i < 3000; i++) {
        language l;
        g4_regular *r = g4_regular_open(NULL, NULL);
        const g4_re x = random_re(r, &l, 4);
        int n_texts = 0;
        for (int k = 0; k < N_TEXTS; k++) n_texts += l.has[k];
        const int is_none = g4_re_is_none(r, x);
        empty += is_none == 1 && n_texts == 0;
        wrong += is_none == 1 ? n_texts > 0 : check_texts(r, x, &l, 0, 0);
        wrong += g4_re_within(r, x, x) != 1 || g4_re_disjoint(r, x, g4_re_not(r, x)) != 1;
        if (is_none == 0) apart += count_apart(r, x, g4_re_clamp(r, x, 3), 3);
        g4_re keep[3] = { x, g4_re_step(r, x, 'a'), x };
        g4_regular_forget(r, 3, keep, 3);
        if (is_none != 1)
            lost += check_texts(r, keep[0], &l, 0, 0) + (keep[0] != keep[2]) +
                    count_apart(r, keep[1], g4_re_step(r, keep[0], 'a'), 4);
        g4_regular_close(r);
    }
    G4_EXPECT(wrong == 0, "%d texts are wrong", wrong);
    G4_EXPECT(apart == 0, "%d clamps tell", apart);
    G4_EXPECT(lost == 0, "%d texts are wrong behind g4_regular_forget", lost);
    G4_EXPECT(empty > 50, "only %d expressions without a text", empty);
}

/* ---- Counts and long texts ------------------------------------------------------------------------ */

static void test_counts(void)
{
    g4_regular *r = g4_regular_open(NULL, NULL);
    g4_re x = g4_re_repeat(r, g4_re_range(r, 'a', 'a'), 99000, 99000);
    const double start = g4_seconds();
    for (int i = 0; i < 99000; i++) x = g4_re_step(r, x, 'a');
    G4_EXPECT(g4_re_accepts(r, x) && g4_re_step(r, x, 'a') == G4_RE_NONE, "a{99000}");
    G4_EXPECT(g4_seconds() - start < 20, "99,000 steps take %.2f s", g4_seconds() - start);

    static char text[40000];
    memset(text, 'x', sizeof text);
    x = g4_re_text(r, text, sizeof text);
    G4_EXPECT(g4_re_matches(r, x, text, sizeof text), "a long text");
    x = g4_re_concat(r, x, g4_re_text(r, "y", 1));
    G4_EXPECT(!g4_re_matches(r, x, text, sizeof text), "a long text and one letter");
    x = G4_RE_EMPTY;
    for (int i = 0; i < 500; i++) x = g4_re_concat(r, g4_re_optional(r, g4_re_range(r, 'a', i % 2 ? 'a' : 'b')), x);
    G4_EXPECT(g4_re_matches(r, x, "abababab", 8) && !g4_re_matches(r, x, text, 1), "500 letters that may be missing");

    /* Ambiguous counts stay one counter. */
    const g4_re word = g4_re_repeat(r, g4_re_repeat(r, g4_re_range(r, 'a', 'z'), 1, -1), 1, 1000);
    for (int i = 0; i < 100; i++) x = g4_re_step(r, i == 0 ? word : x, 'k');
    G4_EXPECT(g4_re_accepts(r, x) && g4_regular_failed(r) == G4_NET_FINE, "(k+){1,1000}");
    G4_EXPECT(g4_re_clamp(r, g4_re_repeat(r, word, 50, 50), 20) == g4_re_clamp(r, g4_re_repeat(r, word, 51, 60), 20),
              "high counts look alike");
    /* So does a length that is far away; one that is near counts. */
    const g4_re ab = g4_re_concat(r, g4_re_range(r, 'a', 'a'), g4_re_repeat(r, g4_re_range(r, 'b', 'b'), 0, -1));
    x = g4_re_and(r, ab, g4_re_repeat(r, g4_re_range(r, 0, 255), 2, 100));
    for (int i = 0; i < 3; i++) x = g4_re_step(r, x, i == 0 ? 'a' : 'b');
    G4_EXPECT(g4_re_clamp(r, x, 20) == g4_re_clamp(r, g4_re_step(r, x, 'b'), 20) && g4_re_clamp(r, x, 98) == x,
              "lengths that are far away look alike");
    const g4_re any = g4_re_any_char(r, G4_ESCAPED); /* and any text beside it changes nothing */
    const g4_re c = g4_re_class(r, &(g4_class) { .ranges = (g4_char_range[]) { { 'c', 'c' } }, .n = 1 }, G4_ESCAPED);
    const g4_re d = g4_re_class(r, &(g4_class) { .ranges = (g4_char_range[]) { { 'd', 'd' } }, .n = 1 }, G4_ESCAPED);
    const g4_re words = g4_re_repeat(r, g4_re_concat(r, g4_re_repeat(r, c, 1, -1), d), 0, 99);
    x = g4_re_and(r, g4_re_and(r, words, g4_re_repeat(r, any, 0, -1)), g4_re_repeat(r, any, 0, 100));
    x = g4_re_step(r, x, 'c');
    const g4_re longer = g4_re_step(r, x, 'c');
    G4_EXPECT(g4_re_n_operands(r, x) == 3 && longer != x && g4_re_clamp(r, longer, 20) == g4_re_clamp(r, x, 20) &&
                  g4_re_clamp(r, x, 99) == x,
              "lengths of texts that are far away look alike");
    const g4_re nested = g4_re_or(r, g4_re_repeat(r, ab, 0, -1), g4_re_repeat(r, g4_re_range(r, 'b', 'b'), 0, 6));
    x = g4_re_step(r, g4_re_repeat(r, nested, 0, -1), 'b');
    G4_EXPECT(g4_re_accepts(r, x), "what may be empty, again and again");
    G4_EXPECT(g4_re_repeat(r, g4_re_repeat(r, G4_RE_ALL, 0, 1), 2, 3) == G4_RE_ALL, "anything repeated");
    g4_regular_close(r);
}

static void test_limits(void)
{
    g4_regular *r = g4_regular_open(NULL, NULL);
    const g4_re a = g4_re_range(r, 'a', 'a'), any = g4_re_range(r, 0, 255);
    /* The length of a text that is long enough is not found out, and a step is right all the same. */
    const g4_re far = g4_re_and(r, g4_re_repeat(r, any, 50000, -1), g4_re_repeat(r, a, 0, -1));
    G4_EXPECT(g4_re_is_none(r, far) == -1, "beyond the limit");
    G4_EXPECT(g4_re_step(r, far, 'a') != G4_RE_NONE && g4_re_step(r, far, 'b') == G4_RE_NONE, "steps beyond the limit");
    const g4_re short_one = g4_re_and(r, g4_re_repeat(r, any, 500, -1), g4_re_repeat(r, a, 0, 499));
    G4_EXPECT(g4_re_is_none(r, short_one) == 1, "499 are not 500");
    G4_EXPECT(g4_re_step(r, g4_re_concat(r, a, short_one), 'a') == G4_RE_NONE, "a dead end");
    G4_EXPECT(g4_re_step(r, g4_re_or(r, g4_re_concat(r, a, short_one), g4_re_text(r, "ab", 2)), 'a') ==
                  g4_re_text(r, "b", 1),
              "an alternative that is a dead end");
    /* Two that agree are not searched, and are the same language. */
    const g4_re ends_alike = g4_re_or(r, g4_re_text(r, "axa", 3), g4_re_text(r, "bxb", 3));
    const g4_re x_within = g4_re_concat(r, any, g4_re_concat(r, g4_re_range(r, 'x', 'x'), any));
    const g4_re agreed = g4_re_agree(r, ends_alike, x_within);
    G4_EXPECT(g4_re_matches(r, agreed, "axa", 3) && !g4_re_matches(r, agreed, "axb", 3) &&
                  g4_re_is_none(r, agreed) == 0,
              "two that agree");
    /* The 200th letter from the end: more states than there is room for. The set can be used again. */
    g4_re x = g4_re_concat(r, g4_re_repeat(r, any, 0, -1), g4_re_concat(r, a, g4_re_repeat(r, any, 200, 200)));
    const int size = g4_regular_size(r);
    for (int i = 0; i < 2000000 && g4_regular_failed(r) == G4_NET_FINE; i++) x = g4_re_step(r, x, pick(2) + 'a');
    G4_EXPECT(g4_regular_failed(r) == G4_NET_TOO_LARGE, "failed: %d", g4_regular_failed(r));
    G4_EXPECT(g4_re_range(r, 'q', 'q') == G4_RE_NONE, "made after a failure");
    g4_regular_recover(r, NULL);
    g4_regular_forget(r, size, NULL, 0);
    G4_EXPECT(g4_re_matches(r, g4_re_text(r, "again", 5), "again", 5), "after a failure");
    g4_regular_close(r);

    g4_halt halt;
    g4_cancel cancel = { 0 };
    g4_halt_open(&halt);
    g4_halt_add_flag(&halt, &cancel);
    r = g4_regular_open(NULL, &halt);
    x = g4_re_text(r, "abc", 3);
    g4_cancel_set(&cancel);
    for (int i = 0; i < 3000; i++) g4_re_range(r, i % 256, 255);
    G4_EXPECT(g4_regular_failed(r) == G4_NET_HALTED, "a call that is ended");
    g4_regular_recover(r, NULL);
    G4_EXPECT(g4_re_matches(r, x, "abc", 3), "after a call that was ended");
    g4_regular_close(r);
}

/* ---- Texts and characters ------------------------------------------------------------------------- */

static int is_of(g4_regular *r, g4_re x, const char *s) { return g4_re_matches(r, x, s, strlen(s)); }

static void test_texts(void)
{
    g4_regular *r = g4_regular_open(NULL, NULL);
    static char names[5000][8];
    static g4_text texts[5000];
    int wrong = 0;
    for (int i = 0; i < 5000; i++) {
        snprintf(names[i], sizeof names[i], "k%d", i * 7919 % 10007);
        texts[i] = (g4_text) { names[i], strlen(names[i]) };
    }
    const g4_re words = g4_re_one_of(r, texts, 5000);
    for (int i = 0; i < 5000; i++) wrong += !is_of(r, words, names[i]);
    for (int i = 5000; i < 10000; i++) {
        char name[8];
        snprintf(name, sizeof name, "k%d", i * 7919 % 10007);
        wrong += is_of(r, words, name);
    }
    G4_EXPECT(wrong == 0, "%d words are wrong", wrong);
    g4_text two[] = { { "ab", 2 }, { "a", 1 }, { "", 0 }, { "ab", 2 } };
    const g4_re small = g4_re_one_of(r, two, 4);
    G4_EXPECT(is_of(r, small, "") && is_of(r, small, "a") && is_of(r, small, "ab") && !is_of(r, small, "b"), "a, ab");
    G4_EXPECT(g4_re_one_of(r, NULL, 0) == G4_RE_NONE, "no words");
    G4_EXPECT(g4_regular_failed(r) == G4_NET_FINE, "failed");
    g4_regular_close(r);
}

static void test_classes(void)
{
    g4_regular *r = g4_regular_open(NULL, NULL);
    g4_char_range ranges[] = {
        { 0, 0x41 }, { 0x5b, 0x7a }, { 0x90, 0x2f00 }, { 0xd000, 0x10450 }, { 0x4e000, 0x10ffff }
    };
    const g4_class k = { ranges, 5, 0 };
    const g4_re raw = g4_re_class(r, &k, G4_RAW), escaped = g4_re_class(r, &k, G4_ESCAPED);
    int wrong = 0, wrong_escaped = 0;
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        char text[4];
        int is_in = 0;
        for (int i = 0; i < 5; i++) is_in |= cp >= ranges[i].low && cp <= ranges[i].high;
        const size_t n = g4_utf8_encode(cp, text);
        if (cp >= 0xd800 && cp <= 0xdfff) is_in = 0;
        if (n == 0) continue;
        wrong += g4_re_matches(r, raw, text, n) != is_in;
        wrong_escaped += g4_re_matches(r, escaped, text, n) != (is_in && cp >= 0x20 && cp != '"' && cp != '\\');
    }
    G4_EXPECT(wrong == 0 && wrong_escaped == 0, "%d and %d characters are wrong", wrong, wrong_escaped);
    G4_EXPECT(is_of(r, escaped, "\\n") && is_of(r, escaped, "\\\"") && is_of(r, escaped, "\\\\") &&
                  is_of(r, escaped, "\\u0000") && is_of(r, escaped, "\\u001f") && is_of(r, escaped, "\\b"),
              "escapes");
    G4_EXPECT(!is_of(r, escaped, "\\u000a") && !is_of(r, escaped, "\\/") && !is_of(r, escaped, "\\"), "other escapes");
    G4_EXPECT(!is_of(r, raw, "\xed\xa0\x80") && !is_of(r, raw, "\xc0\x80") && !is_of(r, raw, "\xf4\x90\x80\x80"),
              "malformed UTF-8");
    const g4_re any = g4_re_any_char(r, G4_ESCAPED);
    G4_EXPECT(is_of(r, any, "\\/") && is_of(r, any, "\\u000A") && is_of(r, any, "\\ud83d\\uDE00") &&
                  is_of(r, any, "\xe2\x82\xac") && is_of(r, any, "\\uD7ff") && is_of(r, any, "\\ue000"),
              "every spelling");
    G4_EXPECT(!is_of(r, any, "\\ud83d") && !is_of(r, any, "\\ude00\\ud83d") && !is_of(r, any, "\"") &&
                  !is_of(r, any, "\n") && !is_of(r, any, "\\x"),
              "no spelling");
    g4_regular_close(r);
}

/* ---- Memory --------------------------------------------------------------------------------------- */

static g4_re build_some(g4_regular *r)
{
    g4_text texts[] = { { "red", 3 }, { "green", 5 }, { "blue", 4 } };
    const g4_re any = g4_re_any_char(r, G4_ESCAPED), three = g4_re_one_of(r, texts, 3);
    const g4_re x = g4_re_and(r, g4_re_repeat(r, any, 3, 2000), g4_re_not(r, g4_re_concat(r, three, three)));
    g4_re_is_none(r, x);
    g4_re_clamp(r, g4_re_concat(r, g4_re_repeat(r, any, 3, 2000), x), 9);
    return x;
}

static void test_memory(void)
{
    int n_failed = 0, wrong = 0;
    for (long at = 0; at < 10000; at++) {
        g4_failing f = { .fail_at = at };
        const g4_allocator a = g4_failing_allocator(&f);
        g4_regular *r = g4_regular_open(&a, NULL);
        if (r != NULL) {
            build_some(r);
            const int failed = g4_regular_failed(r) != G4_NET_FINE;
            n_failed += failed;
            f.fail_at = -1;
            g4_regular_recover(r, NULL);
            const g4_re x = build_some(r);
            wrong += g4_regular_failed(r) != G4_NET_FINE || !is_of(r, x, "redgree") || is_of(r, x, "redgreen");
            g4_regular_close(r);
            wrong += f.live != 0;
            if (!failed) break;
        } else {
            wrong += f.live != 0;
        }
    }
    G4_EXPECT(n_failed > 10 && wrong == 0, "%d failures, %d wrong", n_failed, wrong);
}

int main(void)
{
    test_random();
    test_counts();
    test_limits();
    test_texts();
    test_classes();
    test_memory();
    return g4_test_end();
}
