/* number.c - JSON numbers as regular languages: between bounds, multiples of a number, all spellings of one. Bounds are
 * decimal digits, not doubles, so that 0.1 is exact. A number is written out, or with one digit before the point and an
 * exponent; which digits may come depends on which of the bounds the digits so far are equal to. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <string.h>

#define G4_NUMBER_MAX_EXPONENT 307 /* that numbers are written with: a double holds all of them */
#define G4_NUMBER_MAX_POINT 400    /* digits before the point of a number that is read, and zeros behind it */
#define G4_NUMBER_PLACES (G4_NUMBER_MAX_POINT + G4_NUMBER_DIGITS)

/* ---- Reading ------------------------------------------------------------------------------------- */

int g4_number_read(g4_number *d, const char *s, size_t n)
{
    int64_t exponent = 0;
    int behind_point = 0, sign = 1;
    size_t i = 0;
    *d = (g4_number) { .is_negative = n > 0 && s[0] == '-' };
    for (i = (size_t)d->is_negative; i < n && s[i] != 'e' && s[i] != 'E'; i++) {
        if (s[i] == '.') {
            behind_point = 1;
            continue;
        }
        if (d->n == 0 && s[i] == '0') { /* leading zeros */
            d->point -= behind_point;
            continue;
        }
        if (d->n == G4_NUMBER_DIGITS && s[i] != '0') return 0;
        if (d->n < G4_NUMBER_DIGITS) d->digits[d->n++] = s[i];
        if (!behind_point) d->point++;
    }
    if (i < n && i + 1 < n && (s[i + 1] == '-' || s[i + 1] == '+')) sign = s[++i] == '-' ? -1 : 1;
    for (i++; i < n; i++)
        if (exponent < 100000) exponent = exponent * 10 + (s[i] - '0');
    while (d->n > 0 && d->digits[d->n - 1] == '0') d->n--;
    if (d->n == 0) {
        *d = (g4_number) { 0 };
        return 1;
    }
    exponent = exponent * sign + d->point;
    if (exponent > G4_NUMBER_MAX_POINT || exponent < -G4_NUMBER_MAX_POINT) return 0;
    d->point = (int32_t)exponent;
    return 1;
}

int g4_number_compare(const g4_number *a, const g4_number *b)
{
    const int sign_a = a->n == 0 ? 0 : a->is_negative ? -1 : 1, sign_b = b->n == 0 ? 0 : b->is_negative ? -1 : 1;
    if (sign_a != sign_b || sign_a == 0) return sign_a - sign_b;
    if (a->point != b->point) return (a->point > b->point) == (sign_a > 0) ? 1 : -1;
    const int order = memcmp(a->digits, b->digits, (size_t)g4_min_int(a->n, b->n));
    const int longer = order != 0 ? order : a->n - b->n;
    return longer == 0 ? 0 : (longer > 0) == (sign_a > 0) ? 1 : -1;
}

int g4_number_is_whole(const g4_number *a) { return a->n <= a->point || a->n == 0; }

/* ---- Digits between bounds ----------------------------------------------------------------------- */

typedef struct { /* a bound of numbers without a sign */
    const g4_number *value;
    int is_given, is_exclusive, first; /* first: the place of its first digit; places are counted from the first digit
                                          that is written */
} g4_limit;

typedef struct {
    g4_regular *r;
    g4_limit low, high;
    int n_before;     /* digits before the point */
    int has_fraction; /* may there be one? */
    g4_re end;        /* what follows the digits */
    g4_re digit, zeros, digits;
} g4_digits;

enum { G4_EQUAL_LOW = 1, G4_EQUAL_HIGH = 2 }; /* what the digits so far are equal to */

static int g4_limit_digit(const g4_limit *b, int place)
{
    const int i = place - b->first;
    return i >= 0 && i < b->value->n ? b->value->digits[i] - '0' : 0;
}

/* Are all its digits from that place on zeros? */
static int g4_limit_is_over(const g4_limit *b, int place) { return place - b->first >= b->value->n; }

/* May the number end before that place? */
static int g4_digits_may_end(const g4_digits *d, int equal, int place)
{
    if ((equal & G4_EQUAL_LOW) && (!g4_limit_is_over(&d->low, place) || d->low.is_exclusive)) return 0;
    return !((equal & G4_EQUAL_HIGH) && g4_limit_is_over(&d->high, place) && d->high.is_exclusive);
}

/* Any digits, at least min, behind all places of both bounds, and the end. */
static g4_re g4_digits_rest(const g4_digits *d, int equal, int min)
{
    g4_regular *r = d->r;
    g4_re x = d->digits;
    if (equal & G4_EQUAL_HIGH) {
        if (d->high.is_exclusive || ((equal & G4_EQUAL_LOW) && d->low.is_exclusive)) return G4_RE_NONE;
        x = d->zeros;
    } else if ((equal & G4_EQUAL_LOW) && d->low.is_exclusive) {
        x = g4_re_concat(r, d->zeros, g4_re_concat(r, g4_re_range(r, '1', '9'), d->digits));
    } else if (min > 0) {
        x = g4_re_concat(r, d->digit, d->digits);
    }
    if ((equal & G4_EQUAL_HIGH) && min > 0) x = g4_re_concat(r, g4_re_range(r, '0', '0'), x);
    return g4_re_concat(r, x, d->end);
}

/* The digit at a place, at least min, and what follows it by what the digits are equal to then. */
static g4_re g4_digits_one(const g4_digits *d, int equal, int place, int min, const g4_re next[4])
{
    const int low = equal & G4_EQUAL_LOW ? g4_limit_digit(&d->low, place) : 0;
    const int high = equal & G4_EQUAL_HIGH ? g4_limit_digit(&d->high, place) : 9;
    g4_re x = G4_RE_NONE;
    for (int digit = g4_max_int(low, min); digit <= high;) {
        const int still = equal & ((digit == low ? G4_EQUAL_LOW : 0) | (digit == high ? G4_EQUAL_HIGH : 0));
        int last = digit; /* digits that neither bound has are alike */
        while (still == 0 && last + 1 <= high && !((equal & G4_EQUAL_HIGH) && last + 1 == high)) last++;
        x = g4_re_or(d->r, x, g4_re_concat(d->r, g4_re_range(d->r, '0' + digit, '0' + last), next[still]));
        digit = last + 1;
    }
    return x;
}

/* Numbers with so many digits before the point, between the bounds; first_min: what the first digit is at least. */
static g4_re g4_digits_between(const g4_digits *d, int first_min)
{
    g4_regular *r = d->r;
    const int given = (d->low.is_given ? G4_EQUAL_LOW : 0) | (d->high.is_given ? G4_EQUAL_HIGH : 0);
    g4_re next[4] = { G4_RE_NONE }, here[4] = { G4_RE_NONE };
    int n = d->n_before;
    if (d->low.is_given) n = g4_max_int(n, d->low.first + d->low.value->n);
    if (d->high.is_given) n = g4_max_int(n, d->high.first + d->high.value->n);
    for (int equal = 0; equal <= given; equal++) { /* behind all of the bounds' digits */
        const int has_digit = n > d->n_before;
        if ((equal & given) != equal) continue;
        if (d->has_fraction && has_digit) next[equal] = g4_digits_rest(d, equal, 0);
        if (has_digit) continue;
        const g4_re point = g4_re_concat(r, g4_re_range(r, '.', '.'), g4_digits_rest(d, equal, 1));
        if (d->has_fraction) next[equal] = point;
        if (g4_digits_may_end(d, equal, n)) next[equal] = g4_re_or(r, next[equal], d->end);
    }
    for (int place = n - 1; place >= 0 && !g4_regular_stops(r); place--) {
        for (int equal = 0; equal <= given; equal++) {
            if ((equal & given) != equal) continue;
            here[equal] = g4_digits_one(d, equal, place, place == 0 ? first_min : 0, next);
            if (place < d->n_before) continue;
            if (!d->has_fraction) here[equal] = G4_RE_NONE;
            if (place == d->n_before) here[equal] = g4_re_concat(r, g4_re_range(r, '.', '.'), here[equal]);
            if (g4_digits_may_end(d, equal, place)) here[equal] = g4_re_or(r, here[equal], d->end);
        }
        memcpy(next, here, sizeof next);
    }
    return next[given];
}

/* ---- Numbers without a sign ---------------------------------------------------------------------- */

static int g4_limit_places(const g4_limit *b) { return b->is_given && b->value->point > 1 ? b->value->point : 1; }

/* A bound whose first digit stands so many places before the point. */
static g4_limit g4_limit_at(const g4_limit *b, int n_before)
{
    g4_limit out = *b;
    if (b->is_given) out.first = n_before - b->value->point;
    return out;
}

static const g4_limit g4_no_limit = { NULL, 0, 0, 0 };

/* Written out. Numbers of more digits before the point than one bound, and fewer than the other, are alike. */
static g4_re g4_numbers_plain(g4_digits d, const g4_limit *low, const g4_limit *high)
{
    const int n_low = g4_limit_places(low), n_high = high->is_given ? g4_limit_places(high) : n_low;
    g4_re x = G4_RE_NONE;
    for (int n = n_low; n <= n_high; n = n == n_low && n_high > n_low ? n_high : n + 1) {
        d.n_before = n;
        d.low = n == n_low ? g4_limit_at(low, n) : g4_no_limit;
        d.high = n == n_high ? g4_limit_at(high, n) : g4_no_limit;
        x = g4_re_or(d.r, x, g4_digits_between(&d, n > 1));
    }
    if (high->is_given && n_high - n_low < 2) return x;
    const int max = high->is_given ? n_high - 2 : -1;
    const g4_re first = g4_re_range(d.r, '1', '9'), more = g4_re_repeat(d.r, d.digit, n_low, max);
    const g4_re fraction = g4_re_concat(d.r, g4_re_range(d.r, '.', '.'), g4_re_concat(d.r, d.digit, d.digits));
    const g4_re all = d.has_fraction ? g4_re_optional(d.r, fraction) : G4_RE_EMPTY;
    return g4_re_or(d.r, x, g4_re_concat(d.r, g4_re_concat(d.r, first, more), g4_re_concat(d.r, all, d.end)));
}

/* e and an exponent from low to high, leading zeros allowed. */
static g4_re g4_number_exponents(g4_regular *r, int low, int high)
{
    const g4_re e = g4_re_or(r, g4_re_range(r, 'e', 'e'), g4_re_range(r, 'E', 'E'));
    const g4_re zeros = g4_re_repeat(r, g4_re_range(r, '0', '0'), 0, 2);
    g4_re x = G4_RE_NONE;
    for (int sign = 0; sign < 2; sign++) {
        const int from = g4_max_int(0, sign == 0 ? low : -high), to = sign == 0 ? high : -low;
        if (from > to) continue;
        char text[2][4];
        g4_number bounds[2];
        for (int i = 0; i < 2; i++) {
            const int value = i == 0 ? from : to;
            text[i][0] = (char)('0' + value / 100);
            text[i][1] = (char)('0' + value / 10 % 10);
            text[i][2] = (char)('0' + value % 10);
            g4_number_read(&bounds[i], text[i], 3);
        }
        g4_digits d = { .r = r, .end = G4_RE_EMPTY, .digit = g4_re_range(r, '0', '9') };
        const g4_limit a = { &bounds[0], from > 0, 0, 0 }, b = { &bounds[1], 1, 0, 0 };
        const g4_re plus = g4_re_optional(r, g4_re_range(r, '+', '+'));
        const g4_re number = g4_re_concat(r, zeros, g4_numbers_plain(d, &a, &b));
        x = g4_re_or(r, x, g4_re_concat(r, sign == 0 ? plus : g4_re_range(r, '-', '-'), number));
    }
    return g4_re_concat(r, e, x);
}

/* With one digit, which is not 0, before the point, and an exponent. */
static g4_re g4_numbers_scientific(g4_digits d, const g4_limit *low, const g4_limit *high)
{
    const int has_low = low->is_given && low->value->n > 0;
    const int from = has_low ? low->value->point - 1 : -G4_NUMBER_MAX_EXPONENT - 1;
    const int to = high->is_given ? high->value->point - 1 : G4_NUMBER_MAX_EXPONENT + 1;
    g4_re x = G4_RE_NONE;
    if (high->is_given && high->value->n == 0) return x;
    d.n_before = 1;
    for (int exponent = from; exponent <= to; exponent = exponent == from && to > from ? to : exponent + 1) {
        if (exponent < -G4_NUMBER_MAX_EXPONENT || exponent > G4_NUMBER_MAX_EXPONENT) continue;
        d.low = exponent == from && has_low ? *low : g4_no_limit;
        d.high = exponent == to && high->is_given ? *high : g4_no_limit;
        d.end = g4_number_exponents(d.r, exponent, exponent);
        x = g4_re_or(d.r, x, g4_digits_between(&d, 1));
    }
    const int between = g4_max_int(from + 1, -G4_NUMBER_MAX_EXPONENT),
              last = g4_min_int(to - 1, G4_NUMBER_MAX_EXPONENT);
    if (between > last) return x;
    d.low = d.high = g4_no_limit;
    d.end = g4_number_exponents(d.r, between, last);
    return g4_re_or(d.r, x, g4_digits_between(&d, 1));
}

/* A point and zeros, or nothing: what may stand behind an integer. */
static g4_re g4_number_zeros(g4_regular *r)
{
    const g4_re zeros = g4_re_repeat(r, g4_re_range(r, '0', '0'), 1, -1);
    return g4_re_optional(r, g4_re_concat(r, g4_re_range(r, '.', '.'), zeros));
}

static g4_re g4_numbers_unsigned(g4_regular *r, const g4_limit *low, const g4_limit *high, int is_integer)
{
    g4_digits d = { .r = r, .has_fraction = !is_integer, .end = is_integer ? g4_number_zeros(r) : G4_RE_EMPTY };
    d.digit = g4_re_range(r, '0', '9');
    d.digits = g4_re_repeat(r, d.digit, 0, -1);
    d.zeros = g4_re_repeat(r, g4_re_range(r, '0', '0'), 0, -1);
    if (low->is_given && high->is_given && g4_number_compare(low->value, high->value) > 0) return G4_RE_NONE;
    const g4_re x = g4_numbers_plain(d, low, high);
    return is_integer ? x : g4_re_or(r, x, g4_numbers_scientific(d, low, high));
}

/* ---- Numbers ------------------------------------------------------------------------------------- */

g4_re g4_re_numbers(g4_regular *r, const g4_number_bound *low, const g4_number_bound *high, int is_integer)
{
    const g4_number zero = { 0 };
    g4_limit none = g4_no_limit, bounds[2] = { none, none }; /* of their distance from zero */
    g4_number without_sign[2];
    const g4_number_bound *given[2] = { low, high };
    const int low_is_below = low == NULL || (low->value.is_negative && low->value.n > 0);
    const int high_is_below = high != NULL && high->value.is_negative && high->value.n > 0;
    g4_re x = G4_RE_NONE;
    for (int i = 0; i < 2; i++) {
        if (given[i] == NULL) continue;
        without_sign[i] = given[i]->value;
        without_sign[i].is_negative = 0;
        bounds[i] = (g4_limit) { &without_sign[i], 1, given[i]->is_exclusive, 0 };
    }
    const g4_limit above_zero = { &zero, 1, 1, 0 };
    if (!high_is_below) x = g4_numbers_unsigned(r, low_is_below ? &none : &bounds[0], &bounds[1], is_integer);
    if (low_is_below) {
        const g4_re y = g4_numbers_unsigned(r, high_is_below ? &bounds[1] : &above_zero, &bounds[0], is_integer);
        x = g4_re_or(r, x, g4_re_concat(r, g4_re_range(r, '-', '-'), y));
    }
    return x;
}

static g4_re g4_number_digits(g4_regular *r)
{
    const g4_re minus = g4_re_optional(r, g4_re_range(r, '-', '-'));
    const g4_re more = g4_re_repeat(r, g4_re_range(r, '0', '9'), 0, -1);
    return g4_re_concat(r, minus,
                        g4_re_or(r, g4_re_range(r, '0', '0'), g4_re_concat(r, g4_re_range(r, '1', '9'), more)));
}

g4_re g4_re_any_integer(g4_regular *r, int may_have_point)
{
    const g4_re digits = g4_number_digits(r);
    return may_have_point ? g4_re_concat(r, digits, g4_number_zeros(r)) : digits;
}

g4_re g4_re_any_number(g4_regular *r)
{
    const g4_re digits = g4_re_repeat(r, g4_re_range(r, '0', '9'), 1, -1);
    const g4_re fraction = g4_re_optional(r, g4_re_concat(r, g4_re_range(r, '.', '.'), digits));
    const g4_re exponent = g4_number_exponents(r, -G4_NUMBER_MAX_EXPONENT, G4_NUMBER_MAX_EXPONENT);
    return g4_re_concat(r, g4_number_digits(r), g4_re_concat(r, fraction, g4_re_optional(r, exponent)));
}

g4_re g4_re_plain_numbers(g4_regular *r)
{
    const g4_re digits = g4_re_repeat(r, g4_re_range(r, '0', '9'), 0, -1), first = g4_re_range(r, '1', '9');
    const g4_re zero = g4_re_range(r, '0', '0'), minus = g4_re_optional(r, g4_re_range(r, '-', '-'));
    const g4_re fraction = g4_re_concat(r, g4_re_range(r, '.', '.'), g4_re_concat(r, digits, first));
    const g4_re whole = g4_re_concat(r, g4_re_concat(r, first, digits), g4_re_optional(r, fraction));
    return g4_re_or(r, zero, g4_re_concat(r, minus, g4_re_or(r, whole, g4_re_concat(r, zero, fraction))));
}

g4_re g4_re_equal_number(g4_regular *r, const g4_number *value)
{
    const g4_number_bound bound = { *value, 0 };
    const g4_re x = g4_re_numbers(r, &bound, &bound, 0);
    if (value->n > 0) return x;
    return g4_re_concat(r, g4_re_optional(r, g4_re_range(r, '-', '-')), x);
}

void g4_number_write(g4_buf *out, const g4_number *a)
{
    if (a->is_negative && a->n > 0) g4_buf_str(out, "-");
    if (a->n == 0 || a->point <= 0) g4_buf_str(out, "0");
    for (int i = 0; i < a->point; i++) g4_buf_add(out, i < a->n ? &a->digits[i] : "0", 1);
    if (g4_number_is_whole(a)) return;
    g4_buf_str(out, ".");
    for (int i = a->point; i < a->n; i++) g4_buf_add(out, i < 0 ? "0" : &a->digits[i], 1);
}

g4_re g4_re_written_numbers(g4_regular *r, g4_text *texts, size_t n, int are_whole)
{
    const g4_re zeros = are_whole ? g4_number_zeros(r) : g4_re_repeat(r, g4_re_range(r, '0', '0'), 0, -1);
    return n == 0 ? G4_RE_NONE : g4_re_concat(r, g4_re_one_of(r, texts, n), zeros);
}

g4_re g4_re_comparable_numbers(g4_regular *r)
{
    const g4_number zero = { 0 };
    const g4_re all = g4_re_or(r, g4_re_numbers(r, NULL, NULL, 0), g4_re_equal_number(r, &zero));
    return g4_re_and(r, all, g4_re_repeat(r, g4_re_any_char(r, G4_RAW), 0, G4_NUMBER_DIGITS));
}

/* ---- Multiples ----------------------------------------------------------------------------------- */

int g4_re_multiples(g4_regular *r, g4_re *out, const g4_number *of)
{
    int64_t modulus = 0;
    const int n_places = of->n > of->point ? of->n - of->point : 0; /* of the fraction */
    *out = G4_RE_NONE;
    for (int i = 0; i < of->n + (of->point > of->n ? of->point - of->n : 0); i++) {
        modulus = modulus * 10 + (i < of->n ? of->digits[i] - '0' : 0);
        if (modulus > G4_RE_MAX_MODULUS) return 0;
    }
    if (modulus == 0) return 0;
    *out = g4_re_multiple(r, (int32_t)modulus, n_places);
    return 1;
}
