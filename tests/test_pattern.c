/* test_pattern.c - regular expressions of ECMA-262: what they match, raw and within JSON strings, what is refused and
 * where, on a small stack and with memory that runs out. */
#include <pthread.h>
#include <string.h>

#include "chat/chat.h"
#include "failing.h"
#include "test.h"

/* texts: those with a match, NULL, those without one, NULL. */
static void check(int line, g4_spelling spelling, const char *pattern, const char *const *texts)
{
    g4_error err = { 0 };
    g4_re x;
    g4_regular *r = g4_regular_open(NULL, NULL);
    const g4_status st = g4_pattern_re(r, &x, pattern, strlen(pattern), spelling, "pattern", &err);
    G4_EXPECT(st == G4_OK, "line %d: %s: %s", line, pattern, err.message);
    for (int matches = 1; matches >= 0 && st == G4_OK; matches--) {
        for (; *texts != NULL; texts++)
            G4_EXPECT(g4_re_matches(r, x, *texts, strlen(*texts)) == matches, "line %d: %s %s \"%s\"", line, pattern,
                      matches ? "does not match" : "matches", *texts);
        texts++;
    }
    G4_EXPECT(g4_regular_failed(r) == G4_NET_FINE, "line %d: failed", line);
    g4_regular_close(r);
}
#define NONE NULL
#define YES(...) __VA_ARGS__, NULL
#define NO(...) __VA_ARGS__, NULL
#define PATTERN(pattern, ...) check(__LINE__, G4_RAW, pattern, (const char *const[]) { __VA_ARGS__ })
#define ESCAPED(pattern, ...) check(__LINE__, G4_ESCAPED, pattern, (const char *const[]) { __VA_ARGS__ })

static void test_matches(void)
{
    PATTERN("b",
            YES("b", "abc", "ab\n",
                "\xc3\xa9"
                "b"),
            NO("", "a", "\xc3\xa9"));
    PATTERN("^b$", YES("b"), NO("b\n", "ab", "bb", ""));
    PATTERN("^a|b$", YES("ax", "xb", "a"), NO("xa", "bx"));
    PATTERN("", YES("", "x"), NO("\xff"));
    PATTERN("^(?:red|gr(e|a)y)+?s*$", YES("red", "greyreds", "grayss"), NO("gry", "s", "Red"));
    PATTERN("^a{2}b{1,}c{0,2}d{,3}$", YES("aabd{,3}", "aabbccd{,3}"), NO("aabcccd{,3}", "abd{,3}", "aabd"));
    PATTERN("^(a){99000}$", NONE, NO("a", "aa"));
    PATTERN("^(?<year>\\d{4})-(?<month>\\d\\d)$", YES("2024-01"), NO("2024-1", "\xd9\xa1\xd9\xa1\xd9\xa1\xd9\xa1-01"));
    PATTERN("^[^\\d]\\D\\S\\W$", YES("\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9", "ab\xe2\x82\xac."),
            NO("ab.d", "a1..", "ab\xc2\xa0."));
    PATTERN("^\\s+$", YES(" \t\r\n\v\f", "\xc2\xa0\xe2\x80\xa8\xef\xbb\xbf\xe3\x80\x80"), NO("\xe2\x80\x8b", "x"));
    PATTERN("^[\\w.-]+$", YES("a_b-c.9"), NO("\xc3\xa9", "a b"));
    PATTERN("^[^]$", YES("x", "\n", "\xf0\x9f\x98\x80"), NO("", "xx"));
    PATTERN("[]", NONE, NO("", "x"));
    PATTERN("^.$", YES("x", "\xf0\x9f\x98\x80", "\xc2\x85"), NO("\n", "\r", "\xe2\x80\xa8", "\xe2\x80\xa9"));
    PATTERN("^\\u0041\\x42\\u{43}\\cJ\\0\\ud83d\\ude00\\/\\-\\.$", NONE, NO("AB"));
    PATTERN("^\\u0041\\x42\\u{00043}\\cJ\\ud83d\\ude00\\/\\-\\.$", YES("ABC\n\xf0\x9f\x98\x80/-."),
            NO("ABC\n\xf0\x9f\x98\x80/-x"));
    PATTERN("^{a}[{]}]*$", YES("{a}{}", "{a}{}]]"), NO("{a}", "a"));
    PATTERN("^[\\u{1f600}-\\u{1f64f}]+$", YES("\xf0\x9f\x98\x80\xf0\x9f\x99\x8f"), NO("\xf0\x9f\x99\x90", "x"));
    PATTERN("^\\p{L}\\p{Lu}\\p{Script=Greek}\\p{gc=Nd}\\P{L}$", YES("\xc3\xa9\xc3\x89\xce\xb1\xd9\xa1-"),
            NO("\xc3\xa9\xc3\xa9\xce\xb1\xd9\xa1-", "\xc3\xa9\xc3\x89"
                                                    "a\xd9\xa1-"));
    PATTERN("^[\\p{Letter}\\p{Emoji_Presentation}]\\p{White_Space}\\p{sc=Cyrl}\\pN$",
            YES("\xf0\x9f\x98\x80 \xd0\xb6"
                "7"),
            NO("7 \xd0\xb6"
               "7"));
}

static void test_assertions(void)
{
    PATTERN("\\bcat\\b",
            YES("cat", "a cat!",
                "\xc3\xa9"
                "cat"),
            NO("cats", "scat", "_cat"));
    PATTERN("^\\Ba\\b|x\\B", YES("xy", "axx"), NO("a", "x", "x y"));
    PATTERN("a\\b.{0,2}\\bb", YES("a b", "xa-b"), NO("ab", "a--c", "a---b"));
    PATTERN("(^|,)x($|,)", YES("x", "a,x", "x,b", "a,x,b"), NO("ax", "xa,", "a,xb"));
    PATTERN("a^b|a$b", NONE, NO("ab", "a"));
    PATTERN("^(?=.*\\d)(?=.*[a-z]).{4,8}$", YES("abc1", "1234567z"), NO("abcd", "1234", "ab1", "abcdefgh1"));
    PATTERN("^(?!interactive|name$).+$", YES("names", "other"), NO("name", "interactive1", ""));
    PATTERN("^(?:(?!--)[a-z-])*$", YES("a-b-", ""), NO("a--b", "--"));
    PATTERN("^(\\/?(\\.\\.|[a-z]*)($|\\/))*$", YES("/a/b", "../x", ""), NO("/a/.b", "A"));
    PATTERN("^((a|(?!b))+)*c$", YES("aac", "c"), NO("bc", "ab"));
    PATTERN("(?<=\\$)\\d+", YES("$5", "x$12"), NO("5", "$x"));
    PATTERN("(?<!\\\\)\"", YES("\"", "a\""), NO("\\\"", "a"));
    PATTERN("^[a-z.]+(?<!\\.git)$", YES("a.gi", "git"), NO("a.git", ".git"));
    PATTERN("^.*(?<=ab)c", YES("abc", "xxabcx"), NO("ac", "bc"));
    /* pydantic's Decimal and zod's email */
    const char *decimal = "^(?!^[-+.]*$)[+-]?0*(?:\\d{0,8}|(?=[\\d.]{1,11}0*$)\\d{0,8}\\.\\d{0,2}0*$)";
    PATTERN(decimal, YES("1", "-12345678", "+0001.25", "1.5000", ".5", "12345678.12"), NO("", "-", ".", "+.-"));
    PATTERN("^(?!\\.)(?!.*\\.\\.)([A-Za-z0-9_'+\\-\\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\\-]*\\.)+[A-Za-z]{2,}$",
            YES("a@b.co", "first.last+tag@sub.example.org"), NO(".a@b.co", "a..b@c.de", "a.@b.co", "a@b", "a@-b.co"));
}

static void test_escaped(void)
{
    ESCAPED("^[\"\\\\\\n]+$", YES("\\\"\\\\\\n"), NO("\"", "\\u000a", "n"));
    ESCAPED("^.\\x00\\x1f$", YES("\\\"\\u0000\\u001f", "\xc3\xa9\\u0000\\u001f"),
            NO("\\n\\u0000\\u001f", "a\\u0000\\u001F"));
    ESCAPED("^(?!a)[^b]{2}$", YES("\\t\\\\", "xy"), NO("ab", "ax", "\\t"));
    ESCAPED("/", YES("/", "a/\\\""), NO("\\/", "\\\\", "\n/"));
}

/* Once a match was seen, or a lookahead is decided, what follows is any text, and the same expression. */
static void test_settled(void)
{
    g4_re x, any, word;
    g4_regular *r = g4_regular_open(NULL, NULL);
    g4_pattern_re(r, &any, "", 0, G4_ESCAPED, "any", NULL);
    g4_pattern_re(r, &x, "foo", 3, G4_ESCAPED, "foo", NULL);
    for (const char *s = "a foo"; *s != '\0'; s++) x = g4_re_step(r, x, *s);
    G4_EXPECT(x == any, "any text behind foo");
    g4_pattern_re(r, &x, "^(?!foo|bar)\\w*$", 16, G4_ESCAPED, "not foo", NULL);
    g4_pattern_re(r, &word, "^\\w*$", 5, G4_ESCAPED, "word", NULL);
    x = g4_re_step(r, g4_re_step(r, x, 'f'), 'a');
    G4_EXPECT(x == word, "a word behind fa");
    g4_regular_close(r);
}

/* ---- What is refused ------------------------------------------------------------------------------ */

static void refused(int line, const char *pattern, g4_status want, const char *place)
{
    g4_error err = { 0 };
    g4_re x = G4_RE_ALL;
    g4_regular *r = g4_regular_open(NULL, NULL);
    const g4_status st = g4_pattern_re(r, &x, pattern, strlen(pattern), G4_RAW, "#/a", &err);
    G4_EXPECT(st == want && x == G4_RE_NONE, "line %d: %s: %d %s", line, pattern, (int)st, err.message);
    G4_EXPECT(strstr(err.message, place) != NULL, "line %d: %s: %s", line, pattern, err.message);
    g4_regular_close(r);
}
#define MALFORMED(pattern, place) refused(__LINE__, pattern, G4_ERR_FORMAT, place)
#define UNSUPPORTED(pattern, place) refused(__LINE__, pattern, G4_ERR_UNSUPPORTED, place)

static void test_refused(void)
{
    MALFORMED("a(b", "#/a: at character 2: a group without )");
    MALFORMED("a)b", "character 2: unexpected )");
    MALFORMED("\xc3\xa9[b", "character 2: a class without ]");
    MALFORMED("[b-a]", "character 2: a bad range");
    MALFORMED("*a", "character 1: nothing to repeat");
    MALFORMED("a**", "character 3: nothing to repeat");
    MALFORMED("a{3,2}", "character 2: {m,n}");
    MALFORMED("{2}", "character 1: nothing to repeat");
    MALFORMED("\\u12", "bad \\u");
    MALFORMED("\\u{110000}", "bad \\u");
    MALFORMED("\\", "backslash");
    MALFORMED("a\xff", "character 2: malformed UTF-8");
    MALFORMED("\\p{L", "\\p without }");
    UNSUPPORTED("(a)\\1", "character 5: back references");
    UNSUPPORTED("(?<n>a)\\k<n>", "back references");
    UNSUPPORTED("(?i)a", "kind of group");
    UNSUPPORTED("\\Aa", "escape");
    UNSUPPORTED("\\p{Klingon}", "property");
    UNSUPPORTED("\\ud800", "surrogate");
    UNSUPPORTED("(?<=a+)b(?=c)(?<=ab*)c", "lookbehind");
    UNSUPPORTED("((?=a)b){300}", "character 9: what looks around");
}

/* ---- Stack, memory --------------------------------------------------------------------------------- */

static void *on_small_stack(void *user)
{
    char deep[4200];
    int *passed = user, depth = 0;
    g4_re x;
    g4_regular *r = g4_regular_open(NULL, NULL);
    for (const char *open = "(?!"; depth < 2; depth++, open = "(a|") {
        size_t n = 0;
        for (int i = 0; i < 99; i++, n += 3) memcpy(deep + n, open, 3);
        deep[n++] = 'b';
        for (int i = 0; i < 99; i++, n += 1 + (size_t)depth) memcpy(deep + n, ")*", 2);
        *passed += g4_pattern_re(r, &x, deep, n, G4_ESCAPED, "deep", NULL) == G4_OK;
    }
    memset(deep, '(', sizeof deep);
    *passed += g4_pattern_re(r, &x, deep, sizeof deep, G4_RAW, "deep", NULL) == G4_ERR_UNSUPPORTED;
    char *word = g4_alloc(NULL, 40000, 1);
    memset(word, 'k', 40000);
    word[0] = '^';
    *passed += g4_pattern_re(r, &x, word, 40000, G4_RAW, "long", NULL) == G4_OK && g4_re_matches(r, x, word + 1, 39999);
    for (int i = 0; i < 40000; i++) word[i] = "a?"[i % 2];
    *passed += g4_pattern_re(r, &x, word, 600, G4_RAW, "long", NULL) == G4_OK && g4_re_matches(r, x, "aaaa", 4);
    g4_free(NULL, word);
    g4_regular_close(r);
    return NULL;
}

#if defined(__SANITIZE_ADDRESS__)
#define STACK (2 << 20) /* frames hold more then */
#else
#define STACK (256 << 10)
#endif

static void test_stack(void)
{
    pthread_t thread;
    pthread_attr_t attr;
    int passed = 0;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    const int made = pthread_create(&thread, &attr, on_small_stack, &passed);
    if (made == 0) pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
    G4_EXPECT(made == 0 && passed == 5, "%d of 5 on a stack of 256 KB", passed);
}

static void test_memory(void)
{
    const char *pattern = "^(?:(?!ab|\\p{Lu})[^x]\\b|(?<=y)z{2,900})*$";
    int n_failed = 0, wrong = 0;
    for (long at = 0;; at++) {
        g4_failing f = { .fail_at = at };
        const g4_allocator a = g4_failing_allocator(&f);
        g4_regular *r = g4_regular_open(&a, NULL);
        g4_re x;
        const g4_status st =
            r == NULL ? G4_ERR_MEMORY : g4_pattern_re(r, &x, pattern, strlen(pattern), G4_ESCAPED, "pattern", NULL);
        g4_regular_close(r);
        wrong += f.live != 0 || (st != G4_OK && st != G4_ERR_MEMORY);
        if (st == G4_OK) break;
        n_failed++;
    }
    G4_EXPECT(n_failed > 20 && wrong == 0, "%d failures, %d wrong", n_failed, wrong);
}

int main(void)
{
    test_matches();
    test_assertions();
    test_escaped();
    test_settled();
    test_refused();
    test_stack();
    test_memory();
    return g4_test_end();
}
