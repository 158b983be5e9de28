/* test_number.c - numbers between bounds, multiples, and all spellings of one number, written out. */
#include <string.h>

#include "chat/chat.h"
#include "test.h"

typedef struct {
    const char *low, *high; /* NULL: none; an x before it: exclusive */
    int is_integer;
    const char *multiple_of; /* NULL: anything */
} range;

static const g4_number_bound *bound(g4_number_bound *b, const char *s)
{
    if (s == NULL) return NULL;
    b->is_exclusive = *s == 'x';
    s += b->is_exclusive;
    G4_EXPECT(g4_number_read(&b->value, s, strlen(s)), "cannot read %s", s);
    return b;
}

/* texts: those that are in it, NULL, those that are not, NULL. */
static void check(int line, range k, const char *const *texts)
{
    g4_number_bound low, high;
    g4_number of;
    g4_re multiples;
    g4_regular *r = g4_regular_open(NULL, NULL);
    g4_re x = g4_re_numbers(r, bound(&low, k.low), bound(&high, k.high), k.is_integer);
    if (k.multiple_of != NULL) {
        g4_number_read(&of, k.multiple_of, strlen(k.multiple_of));
        G4_EXPECT(g4_re_multiples(r, &multiples, &of), "line %d: multiples", line);
        x = g4_re_and(r, x, multiples);
    }
    for (int fits = 1; fits >= 0; fits--, texts++)
        for (; *texts != NULL; texts++)
            G4_EXPECT(g4_re_matches(r, x, *texts, strlen(*texts)) == fits, "line %d: %s", line, *texts);
    G4_EXPECT(g4_regular_failed(r) == G4_NET_FINE, "line %d: failed", line);
    g4_regular_close(r);
}
#define YES(...) __VA_ARGS__, NULL
#define NO(...) __VA_ARGS__, NULL
#define NUMBERS(low, high, is_integer, multiple, ...)                                                                  \
    check(__LINE__, (range) { low, high, is_integer, multiple }, (const char *const[]) { __VA_ARGS__ })

static void test_bounds(void)
{
    NUMBERS("-3", "120", 1, NULL, YES("-3", "-1", "0", "9", "99", "120", "1.0", "-3.00", "0.0"),
            NO("-4", "121", "01", "1.5", "1.", "120.01", "1e1", "-0", "-", ""));
    NUMBERS("x0.25", "10", 0, NULL,
            YES("0.250000000000000001", "0.3", "9.99", "10", "10.000", "2.6e-1", "1e0", "1.0E+01", "9.9e000"),
            NO("0.25", "0.250", "10.1", "10.0000000000000000001", "2.5e-1", "1.1e1", "26e-2", "0.5e0", "-1", "00.3",
               ".3", "3."));
    NUMBERS("-2.5", "x-0.5", 0, NULL, YES("-2.5", "-2.49", "-0.51", "-1", "-5.1e-1"),
            NO("-2.51", "-0.5", "-5e-1", "0", "-3"));
    NUMBERS("0", NULL, 0, NULL, YES("0", "0.0", "12345678901234567890.5", "1e307", "1e-307"),
            NO("-1", "-0.0", "1e308"));
    NUMBERS(NULL, "-99999999999999999999", 1, NULL, YES("-99999999999999999999", "-100000000000000000000"),
            NO("-99999999999999999998", "0", "-1"));
    NUMBERS("0", "1e30", 1, NULL, YES("0", "1000000000000000000000000000000", "999999999999999999999999999999"),
            NO("1000000000000000000000000000001", "10000000000000000000000000000000"));
    NUMBERS("1", "1", 0, NULL, YES("1", "1.0", "1.000", "1e0", "1.0E-0", "1e+00"), NO("1.1", "10e-1", "0.1e1", "2"));
    NUMBERS("0.1", "0.2", 1, NULL, NULL, NO("0", "1", "0.1"));
    NUMBERS("0.00000123", "0.000456", 0, NULL, YES("1.23e-6", "4.56e-4", "1e-5", "0.0001"),
            NO("1.22e-6", "4.57e-4", "0"));
    NUMBERS(NULL, NULL, 0, NULL, YES("0", "-1.5", "1e5", "123.25"), NO("-0", "01", "1e", "+1"));
}

static void test_multiples(void)
{
    NUMBERS(NULL, NULL, 0, "0.01", YES("0.07", "0", "1.10", "-12.34", "5", "0.070", "100.000"),
            NO("0.071", "0.001", "7e-2", "1.005"));
    NUMBERS("10", "100", 1, "7", YES("14", "98", "49", "14.0"), NO("7", "105", "10", "100", "14.7"));
    NUMBERS(NULL, NULL, 1, "2.5", YES("0", "5", "-10"), NO("2", "7", "2.5"));
    NUMBERS("0", "1", 0, "0.3", YES("0", "0.3", "0.60", "0.9"), NO("1", "1.2", "0.31"));
    NUMBERS(NULL, NULL, 0, "1e-8", YES("0.00000001", "1", "2.5"), NO("0.000000001"));
    NUMBERS("x3", "x5", 1, "10", NULL, NO("3", "4", "5"));
    NUMBERS("1000000", NULL, 1, "9973", YES("1007273"), NO("997300", "1007274"));
    g4_regular *r = g4_regular_open(NULL, NULL);
    const g4_re dead = g4_re_and(r, g4_re_multiple(r, 300, 0), g4_re_range(r, '7', '7'));
    G4_EXPECT(g4_re_is_none(r, dead) == 1, "7 is no multiple of 300");
    g4_number of;
    g4_re x;
    g4_number_read(&of, "12345.6", 7);
    G4_EXPECT(!g4_re_multiples(r, &x, &of) && x == G4_RE_NONE, "too many residues");
    g4_number_read(&of, "0.0", 3);
    G4_EXPECT(!g4_re_multiples(r, &x, &of), "multiples of 0");
    g4_regular_close(r);
}

static void test_equal(void)
{
    g4_regular *r = g4_regular_open(NULL, NULL);
    g4_number a, b;
    g4_number_read(&a, "-150.00", 7);
    g4_number_read(&b, "-1.5E2", 6);
    G4_EXPECT(g4_number_compare(&a, &b) == 0 && g4_number_is_whole(&b) &&
                  !g4_number_is_whole(&(g4_number) { 0, 2, 1, "15" }),
              "-150");
    g4_number_read(&b, "-1.50001e2", 10);
    G4_EXPECT(g4_number_compare(&a, &b) > 0 && g4_number_compare(&b, &a) < 0 && !g4_number_is_whole(&b), "-150.001");
    const g4_re x = g4_re_equal_number(r, &a);
    G4_EXPECT(g4_re_matches(r, x, "-150", 4) && g4_re_matches(r, x, "-150.0", 6) && g4_re_matches(r, x, "-1.5e2", 6) &&
                  g4_re_matches(r, x, "-1.500E+02", 10),
              "spellings of -150");
    G4_EXPECT(!g4_re_matches(r, x, "150", 3) && !g4_re_matches(r, x, "-151", 4) && !g4_re_matches(r, x, "-1.5e3", 6),
              "others");
    g4_number_read(&a, "0e9", 3);
    G4_EXPECT(a.n == 0 && g4_re_matches(r, g4_re_equal_number(r, &a), "-0.0", 4), "0");
    G4_EXPECT(!g4_number_read(&a, "1e999", 5), "1e999");
    const g4_re any = g4_re_any_number(r), whole = g4_re_any_integer(r, 1);
    G4_EXPECT(g4_re_matches(r, any, "-0.50E+003", 10) && g4_re_matches(r, any, "100e-2", 6) &&
                  !g4_re_matches(r, any, "1e400", 5) && !g4_re_matches(r, any, ".5", 2),
              "any number");
    G4_EXPECT(g4_re_matches(r, whole, "-12", 3) && g4_re_matches(r, whole, "1.0", 3) &&
                  !g4_re_matches(r, whole, "1.5", 3) && !g4_re_matches(r, whole, "1.", 2),
              "any integer");
    const g4_re comparable = g4_re_comparable_numbers(r);
    G4_EXPECT(g4_re_matches(r, comparable, "-0.0", 4) && g4_re_matches(r, comparable, "1.5e-7", 6) &&
                  !g4_re_matches(r, comparable, "15e-8", 5),
              "numbers of which all spellings are known");
    g4_regular_close(r);
}

int main(void)
{
    test_bounds();
    test_multiples();
    test_equal();
    return g4_test_end();
}
