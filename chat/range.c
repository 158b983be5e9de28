/* range.c - the numbers between two bounds as a network. They are written digit by digit, without an exponent: what a
 * digit may be depends on which of the bounds the digits so far are equal to. Bounds are decimal digits, not doubles,
 * so that 0.1 is exact. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <stdlib.h>
#include <string.h>

#define G4_DECIMAL_EXPONENT 30 /* at most, either way */
#define G4_OPEN_DIGITS 15      /* of the integer part when there is no upper bound */
#define G4_MORE_PLACES 3       /* of the fraction, beyond those that a bound has */

enum { G4_INTEGER, G4_FRACTION };

/* Reads the digits of a JSON number up to its exponent, and that: `point` digits stand before the point. Returns their
 * number, or -1 when there are too many. */
static int g4_decimal_scan(const char *s, char digits[G4_DECIMAL_DIGITS], int *point, long *exponent)
{
    int n = 0;
    *point = -1;
    for (; *s != '\0' && *s != 'e' && *s != 'E'; s++) {
        if (*s == '.') {
            *point = n;
        } else {
            if (n >= G4_DECIMAL_DIGITS) return -1;
            digits[n++] = *s;
        }
    }
    if (*point < 0) *point = n;
    *exponent = *s != '\0' ? strtol(s + 1, NULL, 10) : 0;
    return n;
}

static int g4_decimal_add(g4_decimal *d, int part, char digit)
{
    int *n = &d->n[part];
    if (*n >= G4_DECIMAL_DIGITS) return 0;
    d->digits[part][(*n)++] = digit;
    return 1;
}

int g4_decimal_read(g4_decimal *d, const char *s)
{
    char digits[G4_DECIMAL_DIGITS];
    int point, is_zero = 1;
    long exponent;
    memset(d, 0, sizeof *d);
    d->is_negative = *s == '-';
    const int n = g4_decimal_scan(s + d->is_negative, digits, &point, &exponent);
    if (n < 0) return 0;
    for (int i = 0; i < n; i++) is_zero = is_zero && digits[i] == '0';
    if (exponent > G4_DECIMAL_EXPONENT || exponent < -G4_DECIMAL_EXPONENT) return is_zero;
    const int before = point + (int)exponent; /* digits before the point; below 0: so many zeros behind it */
    for (int i = before; i < 0; i++) g4_decimal_add(d, G4_FRACTION, '0');
    for (int i = 0; i < n || i < before; i++) {
        const char digit = i < n ? digits[i] : '0';
        if (i < before && d->n[G4_INTEGER] == 0 && digit == '0') continue; /* a leading zero */
        if (!g4_decimal_add(d, i < before ? G4_INTEGER : G4_FRACTION, digit)) return 0;
    }
    while (d->n[G4_FRACTION] > 0 && d->digits[G4_FRACTION][d->n[G4_FRACTION] - 1] == '0') d->n[G4_FRACTION]--;
    if (d->n[G4_INTEGER] == 0) g4_decimal_add(d, G4_INTEGER, '0');
    if (is_zero) d->is_negative = 0;
    return 1;
}

/* Digit i of a part; 0 behind its last. */
static int g4_decimal_digit(const g4_decimal *d, int part, int i)
{
    return i < d->n[part] ? d->digits[part][i] - '0' : 0;
}

typedef struct { /* the numbers low..high, not negative; high not given: no end */
    g4_net *net;
    const g4_bound *low, *high;
} g4_range;

/* Nodes behind the digits so far, by what these equal: bit 0 the digits of low, bit 1 those of high; -1: none. */
typedef struct {
    int32_t node[4];
} g4_range_front;
#define G4_EQUALS_LOW 1
#define G4_EQUALS_HIGH 2

static const g4_range_front g4_range_front_none = { { -1, -1, -1, -1 } };

/* Digit i of a part, from the node `from` that stands at `equal` in the front; at least min. */
static void g4_range_digit(const g4_range *r, g4_range_front *next, int32_t from, int equal, int part, int i, int min)
{
    const int low = equal & G4_EQUALS_LOW ? g4_decimal_digit(&r->low->value, part, i) : 0;
    const int high = equal & G4_EQUALS_HIGH ? g4_decimal_digit(&r->high->value, part, i) : 9;
    for (int digit = g4_max_int(low, min); digit <= high; digit++) {
        const int still = equal & ((digit == low ? G4_EQUALS_LOW : 0) | (digit == high ? G4_EQUALS_HIGH : 0));
        if (next->node[still] < 0) next->node[still] = g4_net_node(r->net);
        g4_net_byte(r->net, from, next->node[still], '0' + digit);
    }
}

/* May the number end behind i digits of its fraction? */
static int g4_range_may_end(const g4_range *r, int equal, int i)
{
    if ((equal & G4_EQUALS_LOW) && (i < r->low->value.n[G4_FRACTION] || r->low->is_exclusive)) return 0;
    return !(equal & G4_EQUALS_HIGH) || i < r->high->value.n[G4_FRACTION] || !r->high->is_exclusive;
}

/* The end of the number, or a point and a fraction of at most so many places. */
static void g4_range_fraction(const g4_range *r, g4_range_front front, int32_t to, int places)
{
    for (int i = 0; i <= places; i++) {
        g4_range_front next = g4_range_front_none;
        for (int equal = 0; equal < 4; equal++) {
            int32_t from = front.node[equal];
            if (from < 0) continue;
            if (g4_range_may_end(r, equal, i)) g4_net_empty(r->net, from, to);
            if (i == places) continue;
            if (i == 0) {
                const int32_t point = g4_net_node(r->net);
                g4_net_byte(r->net, from, point, '.');
                from = point;
            }
            g4_range_digit(r, &next, from, equal, G4_FRACTION, i, 0);
        }
        front = next;
    }
}

static void g4_net_range(g4_net *net, int32_t from, int32_t to, const g4_bound *low, const g4_bound *high,
                         int is_integer)
{
    const g4_range r = { net, low, high };
    const int n_low = low->value.n[G4_INTEGER];
    const int n_high = high->is_given ? high->value.n[G4_INTEGER] : g4_max_int(n_low, G4_OPEN_DIGITS);
    const int places =
        G4_MORE_PLACES + g4_max_int(low->value.n[G4_FRACTION], high->is_given ? high->value.n[G4_FRACTION] : 0);
    for (int n = n_low; n <= n_high; n++) { /* digits of the integer part */
        const int equals_low = n == n_low ? G4_EQUALS_LOW : 0;
        const int equals_high = high->is_given && n == n_high ? G4_EQUALS_HIGH : 0;
        g4_range_front front = g4_range_front_none;
        front.node[equals_low | equals_high] = from;
        for (int i = 0; i < n; i++) {
            g4_range_front next = g4_range_front_none;
            for (int equal = 0; equal < 4; equal++)
                if (front.node[equal] >= 0) /* the first of several digits is not 0 */
                    g4_range_digit(&r, &next, front.node[equal], equal, G4_INTEGER, i, i == 0 && n > 1);
            front = next;
        }
        g4_range_fraction(&r, front, to, is_integer ? 0 : places);
    }
}

void g4_net_between(g4_net *net, int32_t from, int32_t to, const g4_bound *low, const g4_bound *high, int is_integer)
{
    g4_bound zero = { .is_given = 1 };
    g4_decimal_read(&zero.value, "0");
    if (!high->is_given || !high->value.is_negative) {
        const int32_t start = g4_net_node(net);
        g4_net_empty(net, from, start);
        g4_net_range(net, start, to, low->is_given && !low->value.is_negative ? low : &zero, high, is_integer);
    }
    if (!low->is_given || low->value.is_negative) { /* the same on the other side of zero, which is left out there */
        const int32_t start = g4_net_node(net);
        g4_net_byte(net, from, start, '-');
        zero.is_exclusive = 1;
        g4_net_range(net, start, to, high->is_given && high->value.is_negative ? high : &zero, low, is_integer);
    }
}
