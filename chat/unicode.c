/* unicode.c - classes of characters: sets of code points as ranges, those that patterns have short names for, and
 * those that Unicode names by general category, script or binary property. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <string.h>

#include "unicode.h"

#define G4_LAST_CHAR 0x10ffff
#define G4_COUNT(a) ((int)(sizeof(a) / sizeof(a)[0]))

/* ---- Sets of code points ------------------------------------------------------------------------- */

void g4_class_add(g4_regular *r, g4_class *k, uint32_t low, uint32_t high)
{
    g4_char_range *ranges = g4_array_grow(g4_regular_allocator(r), k->ranges, k->n, &k->cap, sizeof *ranges);
    if (ranges == NULL) {
        g4_regular_fail(r, G4_NET_NO_MEMORY);
        return;
    }
    k->ranges = ranges;
    ranges[k->n++] = (g4_char_range) { low, high };
}

void g4_class_free(const g4_regular *r, g4_class *k)
{
    g4_free(g4_regular_allocator(r), k->ranges);
    *k = (g4_class) { 0 };
}

static int g4_char_range_order(const void *pa, const void *pb)
{
    const g4_char_range *a = pa, *b = pb;
    return (a->low > b->low) - (a->low < b->low);
}

void g4_class_settle(g4_regular *r, g4_class *k)
{
    int n = 0, is_sorted = 1;
    for (int i = 1; i < k->n; i++) is_sorted &= k->ranges[i - 1].high < k->ranges[i].low;
    if (!is_sorted &&
        !g4_sort(g4_regular_allocator(r), k->ranges, (size_t)k->n, sizeof *k->ranges, g4_char_range_order, NULL))
        g4_regular_fail(r, G4_NET_NO_MEMORY);
    for (int i = 0; i < k->n; i++) {
        const g4_char_range next = k->ranges[i];
        g4_char_range *last = n > 0 ? &k->ranges[n - 1] : NULL;
        if (last == NULL || next.low > last->high + 1)
            k->ranges[n++] = next;
        else if (next.high > last->high)
            last->high = next.high;
    }
    k->n = n;
}

void g4_class_negate(g4_regular *r, g4_class *k)
{
    g4_class out = { 0 };
    uint32_t from = 0;
    g4_class_settle(r, k);
    for (int i = 0; i < k->n; i++) {
        if (k->ranges[i].low > from) g4_class_add(r, &out, from, k->ranges[i].low - 1);
        from = k->ranges[i].high + 1;
    }
    if (from <= G4_LAST_CHAR) g4_class_add(r, &out, from, G4_LAST_CHAR);
    g4_class_free(r, k);
    *k = out;
}

/* Add the ranges of a part to a class, or all characters that the part has not; the part is freed. */
static void g4_class_add_part(g4_regular *r, g4_class *k, g4_class *part, int is_negative)
{
    if (is_negative) g4_class_negate(r, part);
    for (int i = 0; i < part->n; i++) g4_class_add(r, k, part->ranges[i].low, part->ranges[i].high);
    g4_class_free(r, part);
}

void g4_class_add_both(g4_regular *r, g4_class *k, const g4_class *a, const g4_class *b)
{
    for (int i = 0, j = 0; i < a->n && j < b->n;) {
        const g4_char_range x = a->ranges[i], y = b->ranges[j];
        const uint32_t low = x.low > y.low ? x.low : y.low, high = x.high < y.high ? x.high : y.high;
        if (low <= high) g4_class_add(r, k, low, high);
        if (x.high <= y.high) i++;
        if (y.high <= x.high) j++;
    }
}

/* ---- Names --------------------------------------------------------------------------------------- */

void g4_class_shorthand(g4_regular *r, g4_class *k, char letter)
{
    static const g4_char_range spaces[] = { { '\t', '\r' },     { ' ', ' ' },       { 0xa0, 0xa0 },
                                            { 0x1680, 0x1680 }, { 0x2000, 0x200a }, { 0x2028, 0x2029 },
                                            { 0x202f, 0x202f }, { 0x205f, 0x205f }, { 0x3000, 0x3000 },
                                            { 0xfeff, 0xfeff } };
    static const g4_char_range words[] = { { '0', '9' }, { 'A', 'Z' }, { '_', '_' }, { 'a', 'z' } };
    const int kind = letter | 0x20;
    const g4_char_range *ranges = kind == 's' ? spaces : words;
    const int n = kind == 's' ? G4_COUNT(spaces) : kind == 'w' ? G4_COUNT(words) : 1;
    g4_class part = { 0 };
    for (int i = 0; i < n; i++) g4_class_add(r, &part, ranges[i].low, ranges[i].high);
    g4_class_add_part(r, k, &part, letter < 'a');
}

static uint32_t g4_unicode_number(const char **s)
{
    uint32_t value = 0;
    for (int shift = 0;; shift += 5) {
        const char ch = *(*s)++;
        const uint32_t digit = ch == 'h' ? 52u : ch == 'i' ? 23u : (uint32_t)(ch - 40);
        value |= (digit & 31) << shift;
        if (digit < 32) return value;
    }
}

static void g4_class_add_property(g4_regular *r, g4_class *k, const g4_property *p)
{
    uint32_t end = 0;
    for (const char *s = p->ranges; *s != '\0';) {
        const uint32_t low = end + g4_unicode_number(&s);
        end = low + g4_unicode_number(&s) + 1;
        g4_class_add(r, k, low, end - 1);
    }
}

static int g4_name_is(const char *s, size_t n, const char *name)
{
    return strlen(name) == n && memcmp(s, name, n) == 0;
}

/* Adds the property of that name; returns 0 when the list has none. */
static int g4_class_add_named(g4_regular *r, g4_class *k, const g4_property *list, int n_list, const char *s, size_t n)
{
    for (int i = 0; i < n_list; i++)
        if (g4_name_is(s, n, list[i].name) || g4_name_is(s, n, list[i].alias)) {
            g4_class_add_property(r, k, &list[i]);
            return 1;
        }
    return 0;
}

/* A general category, or a group of them: L, Letter. */
static int g4_class_add_category(g4_regular *r, g4_class *k, const char *s, size_t n)
{
    static const struct {
        const char *name, *alias;
    } groups[] = { { "L", "Letter" }, { "LC", "Cased_Letter" }, { "M", "Mark" },   { "M", "Combining_Mark" },
                   { "N", "Number" }, { "P", "Punctuation" },   { "S", "Symbol" }, { "Z", "Separator" },
                   { "C", "Other" },  { "P", "punct" },         { "Nd", "digit" }, { "Cc", "cntrl" } };
    const char *group = NULL;
    if (g4_class_add_named(r, k, g4_unicode_categories, G4_COUNT(g4_unicode_categories), s, n)) return 1;
    for (int i = 0; i < G4_COUNT(groups); i++)
        if (g4_name_is(s, n, groups[i].name) || g4_name_is(s, n, groups[i].alias)) group = groups[i].name;
    if (group == NULL) return 0;
    const int is_cased = strcmp(group, "LC") == 0;
    for (int i = 0; i < G4_COUNT(g4_unicode_categories); i++) {
        const char *name = g4_unicode_categories[i].alias;
        if (is_cased ? name[0] == 'L' && strchr("ult", name[1]) != NULL : memcmp(name, group, strlen(group)) == 0)
            g4_class_add_property(r, k, &g4_unicode_categories[i]);
    }
    return 1;
}

static int g4_class_add_script(g4_regular *r, g4_class *k, const char *s, size_t n)
{
    return g4_class_add_named(r, k, g4_unicode_scripts, G4_COUNT(g4_unicode_scripts), s, n);
}

int g4_class_property(g4_regular *r, g4_class *k, const char *s, size_t n, int is_negative)
{
    const char *sign = memchr(s, '=', n);
    const size_t n_key = sign != NULL ? (size_t)(sign - s) : 0, n_value = n - n_key - 1;
    g4_class part = { 0 };
    int is_known = 0;
    if (sign != NULL) {
        if (g4_name_is(s, n_key, "gc") || g4_name_is(s, n_key, "General_Category"))
            is_known = g4_class_add_category(r, &part, sign + 1, n_value);
        else if (g4_name_is(s, n_key, "sc") || g4_name_is(s, n_key, "Script"))
            is_known = g4_class_add_script(r, &part, sign + 1, n_value);
    } else if (g4_name_is(s, n, "Any") || g4_name_is(s, n, "ASCII")) {
        g4_class_add(r, &part, 0, n == 3 ? G4_LAST_CHAR : 0x7f);
        is_known = 1;
    } else if (g4_name_is(s, n, "Assigned")) {
        g4_class_add_category(r, &part, "Cn", 2);
        g4_class_negate(r, &part);
        is_known = 1;
    } else {
        is_known = g4_class_add_category(r, &part, s, n) || g4_class_add_script(r, &part, s, n) ||
                   g4_class_add_named(r, &part, g4_unicode_properties, G4_COUNT(g4_unicode_properties), s, n);
    }
    g4_class_add_part(r, k, &part, is_negative);
    return is_known;
}
