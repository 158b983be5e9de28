/* distinct.c - items of a list that must all differ: have those that must be there enough values? What an item may be
 * is an expression; its values are classes of texts. Where one of them might be left without a value by what was
 * written before it, the values of all of them that have few are told apart, and whoever builds the list asks which
 * may be used (a system of distinct representatives, by augmenting paths). */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <string.h>

#define G4_DISTINCT_MAX_FOUND 256    /* values of one sort of items that are found one by one */
#define G4_DISTINCT_MAX_SEARCH 20000 /* expressions that are looked at for one of them */
#define G4_DISTINCT_MAX_COUNT 10000  /* and to count them, */
#define G4_DISTINCT_SMALL_COUNT 100  /* or so many when all lists of a grammar have taken what they may */
#define G4_DISTINCT_LAYER 256        /* of these, behind so many bytes */

static void g4_distinct_no_memory(g4_distinct *d) { g4_regular_fail(d->r, G4_NET_NO_MEMORY); }

/* ---- Values of one sort -------------------------------------------------------------------------- */

typedef struct { /* an expression behind some bytes */
    g4_re re;
    int32_t count; /* texts that lead there */
} g4_distinct_place;

static int32_t g4_distinct_add(int32_t a, int64_t b, int32_t most) { return a + b < most ? (int32_t)(a + b) : most; }

/* Texts of which no two have the same value: numbers in one spelling, words, strings without an escape. */
static g4_re g4_distinct_plain(g4_regular *r)
{
    const g4_re letters = g4_re_or(r, g4_re_range(r, 'a', 'z'), g4_re_range(r, 'A', 'Z'));
    const g4_re words = g4_re_repeat(r, letters, 1, -1), quote = g4_re_range(r, '"', '"');
    const g4_re below = g4_re_or(r, g4_re_range(r, ' ', '"' - 1), g4_re_range(r, '"' + 1, '\\' - 1));
    const g4_re inside = g4_re_repeat(r, g4_re_or(r, below, g4_re_range(r, '\\' + 1, 255)), 0, -1);
    const g4_re string = g4_re_concat(r, quote, g4_re_concat(r, inside, quote));
    return g4_re_or(r, words, g4_re_or(r, string, g4_re_plain_numbers(r)));
}

/* Count the texts that lead on from the places of one layer to those of the next, as far as it has room for these. */
static void g4_distinct_step(g4_distinct *d, const g4_distinct_place *from, int n, g4_distinct_place *to, int *n_to,
                             int32_t most)
{
    *n_to = 0;
    for (int i = 0; i < n && !g4_regular_stops(d->r); i++) {
        const g4_re_view v = g4_re_steps_of(d->r, from[i].re);
        int n_bytes[256] = { 0 };
        for (int b = 0; b < 256; b++) n_bytes[v.class_of[b]]++;
        for (int c = 0; c < v.n; c++) {
            int k = 0;
            while (k < *n_to && to[k].re != v.to[c]) k++;
            if (v.to[c] == G4_RE_NONE || k == G4_DISTINCT_LAYER) continue;
            if (k == *n_to) to[(*n_to)++] = (g4_distinct_place) { v.to[c], 0 };
            to[k].count = g4_distinct_add(to[k].count, (int64_t)from[i].count * n_bytes[c], most);
        }
    }
}

/* How many values an item has at least, up to `most`: those with a plain spelling are counted, the short ones first. */
static int32_t g4_distinct_count(g4_distinct *d, g4_re item, int32_t most)
{
    g4_distinct_place layers[2][G4_DISTINCT_LAYER];
    int32_t sum = 0;
    layers[0][0] = (g4_distinct_place) { g4_re_and(d->r, item, d->plain), 1 };
    const int least = d->left - (d->left > 0 ? G4_DISTINCT_MAX_COUNT : G4_DISTINCT_SMALL_COUNT);
    for (int i = 0, n = 1; n > 0 && d->left > least && sum < most; i = !i) {
        for (int k = 0; k < n; k++)
            if (g4_re_accepts(d->r, layers[i][k].re)) sum = g4_distinct_add(sum, layers[i][k].count, most);
        g4_distinct_step(d, layers[i], n, layers[!i], &n, most);
        d->left -= n;
    }
    return sum;
}

/* Append the bytes that lead to entry i of a search. */
static void g4_distinct_write(const g4_distinct *d, int32_t i, g4_buf *text)
{
    const size_t begin = text->len;
    for (; i > 0; i = d->found[i].before) g4_buf_add(text, &d->found[i].byte, 1);
    for (size_t a = begin, b = text->len; a + 1 < b; a++, b--) {
        const char swap = text->data[a];
        text->data[a] = text->data[b - 1];
        text->data[b - 1] = swap;
    }
}

/* Put an expression into the search if it is not there yet. 0: there is no room. */
static int g4_distinct_put(g4_distinct *d, g4_re re, int32_t before, char byte)
{
    const uint32_t hash = (uint32_t)re * 0x9e3779b1u;
    uint32_t at = 0;
    for (int32_t i; (i = g4_table_next(&d->table, hash, &at)) >= 0;)
        if (d->found[i].re == re) return 1;
    if (d->n_found == G4_DISTINCT_MAX_SEARCH || d->left <= 0) return 0;
    g4_distinct_found *found = g4_array_grow(d->a, d->found, d->n_found, &d->cap_found, sizeof *found);
    if (found != NULL) d->found = found;
    if (found == NULL || !g4_table_reserve(&d->table, d->a, d->n_found)) {
        g4_distinct_no_memory(d);
        return 0;
    }
    g4_table_put(&d->table, hash, d->n_found);
    found[d->n_found++] = (g4_distinct_found) { re, before, byte };
    d->left--;
    return 1;
}

/* All texts of the value that one of the shortest texts of an expression has; NONE: it has no text, or none was found,
 * which *is_sure tells apart. */
static g4_re g4_distinct_value(g4_distinct *d, g4_re re, int *is_sure)
{
    g4_buf text = { .a = d->a };
    int i = 0;
    d->n_found = 0;
    g4_table_clear(&d->table);
    *is_sure = 1;
    if (re != G4_RE_NONE) *is_sure = g4_distinct_put(d, re, 0, '\0');
    for (; i < d->n_found && !g4_re_accepts(d->r, d->found[i].re) && !g4_regular_stops(d->r); i++) {
        const g4_re_view v = g4_re_steps_of(d->r, d->found[i].re);
        for (int b = 0; b < 256; b++)
            if (v.to[v.class_of[b]] != G4_RE_NONE) *is_sure &= g4_distinct_put(d, v.to[v.class_of[b]], i, (char)b);
    }
    if (i == d->n_found) return G4_RE_NONE;
    g4_distinct_write(d, i, &text);
    if (text.failed) g4_distinct_no_memory(d);
    const g4_re value = text.failed ? G4_RE_NONE : d->same_item(d->r, text.len > 0 ? text.data : "", text.len);
    *is_sure &= value != G4_RE_NONE;
    g4_buf_free(&text);
    return value;
}

/* Find values of a sort of items one by one, each without those before it: all, or as many as there are items. */
static void g4_distinct_find(g4_distinct *d, g4_distinct_sort *s)
{
    g4_regular *r = d->r;
    g4_re rest = s->item;
    int is_sure = 0;
    s->first = d->n_values;
    for (s->n = 0; s->n < g4_min_int(d->n, G4_DISTINCT_MAX_FOUND) && !g4_regular_stops(r) && !is_sure; s->n++) {
        const g4_re value = g4_distinct_value(d, rest, &is_sure);
        if (value == G4_RE_NONE) break;
        g4_re *values = g4_array_grow(d->a, d->values, d->n_values, &d->cap_values, sizeof *values);
        if (values == NULL) {
            g4_distinct_no_memory(d);
            return;
        }
        d->values = values;
        values[d->n_values++] = value;
        rest = g4_re_and(r, rest, g4_re_not(r, value));
        is_sure = g4_re_is_none(r, rest) == 1;
    }
    s->is_large = s->n == d->n;
    if (s->is_large) d->n_values = s->first;
    s->all = s->n > 0 ? g4_re_any_of(r, d->values + s->first, s->n) : G4_RE_NONE; /* values may be NULL yet */
    s->is_known = is_sure;
}

/* The sort of an item; -1: there are too many. */
static int g4_distinct_sort_of(g4_distinct *d, g4_re item)
{
    for (int i = d->n_sorts - 1; i >= 0; i--)
        if (d->sorts[i].item == item) return i;
    if (d->n_sorts == G4_DISTINCT_SORTS) return -1;
    g4_distinct_sort *s = &d->sorts[d->n_sorts++];
    *s = (g4_distinct_sort) { .item = item };
    s->is_large = g4_distinct_count(d, item, d->n) >= d->n;
    if (!s->is_large) g4_distinct_find(d, s);
    return d->n_sorts - 1;
}

/* ---- Are there enough of them? ------------------------------------------------------------------- */

/* May an item of the sort `other` have a value of sort s, of which all are known? */
static int g4_distinct_meet(g4_distinct *d, const g4_distinct_sort *s, const g4_distinct_sort *other)
{
    if (s == other) return 1;
    return g4_re_disjoint(d->r, other->is_known ? other->all : other->item, s->all) != 1;
}

/* Has each item more values than there are items before it that may have one of them? Then none is ever without. */
static int g4_distinct_is_free(g4_distinct *d)
{
    int before[G4_DISTINCT_SORTS] = { 0 };
    uint8_t meets[G4_DISTINCT_SORTS][G4_DISTINCT_SORTS];
    int is_free = 1;
    memset(meets, 2, sizeof meets); /* not known yet */
    for (int i = 0; i < d->n && is_free && !g4_regular_stops(d->r); i++) {
        const int k = d->sort_of[i];
        const g4_distinct_sort *s = &d->sorts[k];
        int n = 0;
        for (int j = 0; j < d->n_sorts && !s->is_large; j++) {
            if (before[j] == 0) continue;
            if (meets[k][j] == 2) meets[k][j] = (uint8_t)g4_distinct_meet(d, s, &d->sorts[j]);
            n += meets[k][j] ? before[j] : 0;
        }
        is_free = s->is_large || s->n > n;
        before[k]++;
    }
    return is_free;
}

/* Are there more items of one sort than it has values? */
static int g4_distinct_has_too_few(const g4_distinct *d)
{
    int count[G4_DISTINCT_SORTS] = { 0 };
    for (int i = 0; i < d->n; i++) {
        const g4_distinct_sort *s = &d->sorts[d->sort_of[i]];
        if (++count[d->sort_of[i]] > s->n && s->is_known) return 1;
    }
    return 0;
}

/* Number the values of all sorts with few of them, each once, and note which each sort has. 0: they are too many. */
static int g4_distinct_number(g4_distinct *d)
{
    int n = 0;
    for (int k = 0; k < d->n_sorts; k++) {
        g4_distinct_sort *s = &d->sorts[k];
        for (int i = s->first; i < s->first + s->n && !s->is_large; i++) {
            int v = 0;
            const g4_re value = d->values[i]; /* those that are numbered stand at or before it */
            while (v < n && d->values[v] != value) v++;
            if (v == G4_DISTINCT_VALUES) return 0;
            if (v == n) {
                d->values[i] = d->values[n];
                d->values[n++] = value;
            }
            s->values |= (uint64_t)1 << v;
        }
    }
    d->n_values = n;
    return d->n <= G4_DISTINCT_ITEMS;
}

/* Item i gets a value that is not used: one that nobody has, or one whose owner gets another. The depth of the calls is
 * at most the number of values. */
static int g4_distinct_augment(const g4_distinct *d, int i, uint64_t *seen, int *owner)
{
    const uint64_t values = d->sorts[d->sort_of[i]].values;
    for (int v = 0; v < d->n_values; v++) {
        if (!(values & ~*seen & (uint64_t)1 << v)) continue;
        *seen |= (uint64_t)1 << v;
        if (owner[v] >= 0 && !g4_distinct_augment(d, owner[v], seen, owner)) continue;
        owner[v] = i;
        return 1;
    }
    return 0;
}

int g4_distinct_fits(const g4_distinct *d, int from, uint64_t used)
{
    int owner[G4_DISTINCT_VALUES];
    memset(owner, -1, sizeof owner);
    for (int i = from; i < d->n; i++) {
        uint64_t seen = used;
        if (!d->sorts[d->sort_of[i]].is_large && !g4_distinct_augment(d, i, &seen, owner)) return 0;
    }
    return 1;
}

g4_distinctness g4_distinct_open(g4_distinct *d, const g4_re *items, int n)
{
    d->a = g4_regular_allocator(d->r);
    d->n = n;
    d->plain = g4_distinct_plain(d->r);
    d->sort_of = g4_alloc(d->a, (size_t)n + 1, sizeof *d->sort_of);
    if (d->sort_of == NULL) {
        g4_distinct_no_memory(d);
        return G4_DISTINCT_UNKNOWN;
    }
    int is_known = 1;
    for (int i = 0; i < n && is_known && !g4_regular_stops(d->r); i++) {
        const int k = g4_distinct_sort_of(d, items[i]);
        d->sort_of[i] = k;
        is_known = k >= 0 && (d->sorts[k].is_large || d->sorts[k].is_known);
    }
    if (!is_known) return G4_DISTINCT_UNKNOWN;
    if (g4_distinct_is_free(d)) return G4_DISTINCT_ALWAYS;
    if (g4_distinct_has_too_few(d)) return G4_DISTINCT_NEVER;
    if (!g4_distinct_number(d)) return G4_DISTINCT_UNKNOWN;
    return g4_distinct_fits(d, 0, 0) ? G4_DISTINCT_CHOICE : G4_DISTINCT_NEVER;
}

void g4_distinct_close(g4_distinct *d)
{
    g4_free(d->a, d->sort_of);
    g4_free(d->a, d->values);
    g4_free(d->a, d->found);
    g4_free(d->a, d->table.slots);
}
