/* pattern.c - regular expressions and the grammar notation to a network. One reader serves both, since they share
 * classes, groups and quantifiers. A pattern is a regular expression as JSON Schema has it (ECMA 262 without assertions
 * other than ^ and $, without back references); what it matches may be written inside a JSON string, so that quotes,
 * backslashes and control characters appear as escapes. Repeated atoms are read again for each copy: copies in place,
 * not calls, keep the tokens ahead independent of the stack. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define G4_OLD_MAX_CHAR 0x10ffff
#define G4_OLD_MAX_ASCII 0x7f
#define G4_OLDPATTERN_MAX_DEPTH 100 /* of groups */

/* ---- Characters in JSON strings ------------------------------------------------------------------ */

const g4_char_range g4_plain_ranges[G4_N_PLAIN_RANGES] = { { 0x20, 0x21 }, { 0x23, 0x5b }, { 0x5d, G4_OLD_MAX_CHAR } };

/* A character as its escape in a JSON string, if it needs one. */
static void g4_net_escape(g4_net *net, int32_t from, int32_t to, uint32_t cp)
{
    static const char letters[] = "btn\0fr"; /* of 8 to 13; 11 has none */
    char text[8];
    if (cp == '"' || cp == '\\')
        snprintf(text, sizeof text, "\\%c", (int)cp);
    else if (cp >= 8 && cp <= 13 && cp != 11)
        snprintf(text, sizeof text, "\\%c", letters[cp - 8]);
    else if (cp < 0x20)
        snprintf(text, sizeof text, "\\u%04x", (unsigned)cp);
    else
        return;
    g4_net_empty(net, g4_net_word(net, from, text, strlen(text)), to);
}

/* The characters low..high from node to node, in the spelling asked for. */
static void g4_net_spelled(g4_net *net, int32_t from, int32_t to, uint32_t low, uint32_t high, g4_spelling spelling)
{
    if (spelling == G4_RAW) {
        g4_net_chars(net, from, to, low, high);
        return;
    }
    for (int i = 0; i < G4_N_PLAIN_RANGES; i++) {
        const g4_char_range plain = g4_plain_ranges[i];
        const uint32_t a = low > plain.low ? low : plain.low, b = high < plain.high ? high : plain.high;
        if (a <= b) g4_net_chars(net, from, to, a, b);
    }
    for (uint32_t cp = low; cp <= high && cp <= '\\'; cp++) g4_net_escape(net, from, to, cp);
}

/* ---- Classes of characters ----------------------------------------------------------------------- */

void g4_net_class_add(g4_net *net, g4_class *k, uint32_t low, uint32_t high)
{
    g4_char_range *ranges = g4_array_grow(net->a, k->ranges, k->n, &k->cap, sizeof *ranges);
    if (ranges == NULL) {
        net->failed = G4_NET_NO_MEMORY;
        return;
    }
    k->ranges = ranges;
    ranges[k->n++] = (g4_char_range) { low, high };
}

void g4_net_class_free(const g4_net *net, g4_class *k) { g4_free(net->a, k->ranges); }

static int g4_char_range_compare(const void *pa, const void *pb)
{
    const g4_char_range *a = pa, *b = pb;
    return (a->low > b->low) - (a->low < b->low);
}

/* Sort the ranges and join those that touch. */
static void g4_net_class_settle(g4_net *net, g4_class *k)
{
    int n = 0;
    if (!g4_sort(net->a, k->ranges, (size_t)k->n, sizeof *k->ranges, g4_char_range_compare, net->asker.halt))
        net->failed = G4_NET_NO_MEMORY;
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

/* All characters up to `top` that a settled class has not. */
static void g4_net_class_negate(g4_net *net, g4_class *k, uint32_t top)
{
    g4_class out = { 0 };
    uint32_t from = 0;
    for (int i = 0; i < k->n; i++) {
        if (k->ranges[i].low > from) g4_net_class_add(net, &out, from, k->ranges[i].low - 1);
        from = k->ranges[i].high + 1;
    }
    if (from <= top) g4_net_class_add(net, &out, from, top);
    g4_net_class_free(net, k);
    *k = out;
}

void g4_net_class_shorthand(g4_net *net, g4_class *k, char letter)
{
    g4_class part = { 0 };
    switch (letter | 0x20) {
    case 'd': g4_net_class_add(net, &part, '0', '9'); break;
    case 'w':
        g4_net_class_add(net, &part, '0', '9');
        g4_net_class_add(net, &part, 'A', 'Z');
        g4_net_class_add(net, &part, '_', '_');
        g4_net_class_add(net, &part, 'a', 'z');
        break;
    default: g4_net_class_add(net, &part, '\t', '\r'); g4_net_class_add(net, &part, ' ', ' ');
    }
    /* \D and the like stay in ASCII: dialects differ on the letters and digits beyond it */
    if (letter >= 'A' && letter <= 'Z') g4_net_class_negate(net, &part, G4_OLD_MAX_ASCII);
    for (int i = 0; i < part.n; i++) g4_net_class_add(net, k, part.ranges[i].low, part.ranges[i].high);
    g4_net_class_free(net, &part);
}

/* ---- The reader ---------------------------------------------------------------------------------- */

typedef struct {
    g4_net *net;
    const char *s;
    size_t n, pos;
    g4_spelling spelling;
    int is_notation; /* the grammar notation; else a regular expression */
    int depth;
    const char *what; /* for errors */
    g4_status st;
    g4_error *err;
} g4_oldpattern;

static void g4_oldpattern_fail(g4_oldpattern *p, const char *why)
{
    if (p->st != G4_OK || p->net->failed) return; /* what failed before says what is wrong */
    if (!p->is_notation) {
        p->st = g4_fail(p->err, G4_ERR_UNSUPPORTED, "%s: at character %zu: %s", p->what, p->pos + 1, why);
        return;
    }
    size_t line, column;
    g4_text_place(p->s, p->n, p->pos, &line, &column);
    p->st = g4_fail(p->err, G4_ERR_FORMAT, "%s, line %zu column %zu: %s", p->what, line, column, why);
}

static int g4_oldpattern_next_is(const g4_oldpattern *p, char ch) { return p->pos < p->n && p->s[p->pos] == ch; }

/* \uXXXX or \xXX, behind its letter. */
static void g4_oldpattern_hex(g4_oldpattern *p, size_t n_digits, uint32_t *cp)
{
    const size_t left = p->n - p->pos;
    if (left < n_digits || !g4_hex_read(p->s + p->pos, (int)n_digits, cp) || (*cp >= 0xd800 && *cp <= 0xdfff))
        g4_oldpattern_fail(p, "a bad \\u or \\x escape");
    p->pos += left < n_digits ? left : n_digits;
}

/* What a backslash before pos means. Returns 1 for a shorthand class, whose letter *cp gets. */
static int g4_oldpattern_escape(g4_oldpattern *p, uint32_t *cp)
{
    static const char letters[] = "nrtfv0", values[] = "\n\r\t\f\v\0";
    if (p->pos >= p->n) {
        g4_oldpattern_fail(p, "a backslash at the end");
        return 0;
    }
    const char ch = p->s[p->pos++];
    *cp = (unsigned char)ch;
    if (g4_is_one_of("dDwWsS", ch)) return 1;
    if (g4_is_one_of(letters, ch)) {
        *cp = (unsigned char)values[strchr(letters, ch) - letters];
    } else if (ch == 'u' || ch == 'x') {
        g4_oldpattern_hex(p, ch == 'u' ? 4 : 2, cp);
    } else if (g4_is_letter(ch) || g4_is_digit(ch)) {
        g4_oldpattern_fail(p, "this escape is not supported");
    } else if (*cp > G4_OLD_MAX_ASCII) { /* an escaped character beyond ASCII: itself */
        p->pos--;
        p->pos += g4_utf8_decode(p->s + p->pos, p->n - p->pos, cp);
    }
    return 0;
}

/* One character, escapes resolved. Returns 1 for a shorthand class, whose letter *cp gets. */
static int g4_oldpattern_char(g4_oldpattern *p, uint32_t *cp)
{
    const size_t size = g4_utf8_decode(p->s + p->pos, p->n - p->pos, cp);
    if (size == 0) {
        g4_oldpattern_fail(p, p->pos < p->n ? "malformed UTF-8" : "ends too early");
        *cp = 0;
        p->pos = p->n;
        return 0;
    }
    p->pos += size;
    return *cp == '\\' ? g4_oldpattern_escape(p, cp) : 0;
}

/* [...] at pos, into a settled class. */
static void g4_oldpattern_class(g4_oldpattern *p, g4_class *k)
{
    int has_shorthand = 0;
    p->pos++;
    const int negate = g4_oldpattern_next_is(p, '^');
    p->pos += (size_t)negate;
    for (int is_first = 1; p->st == G4_OK && !g4_net_stops(p->net); is_first = 0) {
        uint32_t low, high;
        if (p->pos >= p->n) {
            g4_oldpattern_fail(p, "a class without ]");
            return;
        }
        if (p->s[p->pos] == ']') {
            if (is_first) g4_oldpattern_fail(p, "an empty class");
            p->pos++;
            break;
        }
        if (g4_oldpattern_char(p, &low)) {
            g4_net_class_shorthand(p->net, k, (char)low);
            has_shorthand = 1;
            continue;
        }
        high = low;
        if (p->n - p->pos >= 2 && p->s[p->pos] == '-' && p->s[p->pos + 1] != ']') {
            p->pos++;
            if (g4_oldpattern_char(p, &high) || high < low) g4_oldpattern_fail(p, "a bad range in a class");
        }
        g4_net_class_add(p->net, k, low, high);
    }
    g4_net_class_settle(p->net, k);
    if (negate) g4_net_class_negate(p->net, k, has_shorthand ? G4_OLD_MAX_ASCII : G4_OLD_MAX_CHAR);
}

static int g4_old_is_name_char(char ch) { return g4_is_letter(ch) || g4_is_digit(ch) || ch == '_' || ch == '-'; }

/* Where the name ends that begins at pos. */
static size_t g4_old_skip_name(const g4_oldpattern *p, size_t pos)
{
    while (pos < p->n && g4_old_is_name_char(p->s[pos])) pos++;
    return pos;
}

static size_t g4_skip_line(const g4_oldpattern *p, size_t pos)
{
    while (pos < p->n && p->s[pos] != '\n') pos++;
    return pos;
}

/* Blanks and comments, which the notation has between its words. */
static void g4_old_notation_space(g4_oldpattern *p)
{
    while (p->is_notation && p->pos < p->n) {
        if (g4_is_blank(p->s[p->pos]))
            p->pos++;
        else if (p->s[p->pos] == '#')
            p->pos = g4_skip_line(p, p->pos);
        else
            break;
    }
}

/* Behind what [ or a quote opens at pos. */
static size_t g4_skip_enclosed(const g4_oldpattern *p, size_t pos)
{
    const char end = p->s[pos++] == '[' ? ']' : '"';
    while (pos < p->n && p->s[pos] != end) pos += p->s[pos] == '\\' ? 2 : 1;
    return pos + 1;
}

/* Behind the escape at pos. */
static size_t g4_skip_escape(const g4_oldpattern *p, size_t pos)
{
    const char letter = pos + 1 < p->n ? p->s[pos + 1] : '\0';
    return pos + (letter == 'u' ? 6 : letter == 'x' ? 4 : 2);
}

/* Behind the atom that begins at pos, without building it. */
static size_t g4_oldpattern_skip(const g4_oldpattern *p, size_t pos)
{
    int depth = 0;
    while (pos < p->n && !g4_net_stops(p->net)) {
        const char ch = p->s[pos];
        if (ch == '[' || (ch == '"' && p->is_notation)) {
            pos = g4_skip_enclosed(p, pos);
        } else if (p->is_notation && g4_old_is_name_char(ch)) {
            pos = g4_old_skip_name(p, pos);
        } else if (p->is_notation && ch == '#') {
            pos = g4_skip_line(p, pos);
        } else if (ch == '\\') {
            pos = g4_skip_escape(p, pos);
        } else {
            depth += ch == '(' ? 1 : ch == ')' ? -1 : 0;
            pos++;
            while (pos < p->n && g4_utf8_continues(p->s[pos])) pos++;
        }
        if (depth <= 0) break;
    }
    return pos < p->n ? pos : p->n;
}

/* ---- Atoms --------------------------------------------------------------------------------------- */

static int32_t g4_oldpattern_alternatives(g4_oldpattern *p, int32_t from);

/* The edges of a class, which is freed. */
static void g4_oldpattern_put_class(g4_oldpattern *p, int32_t from, int32_t to, g4_class *k)
{
    for (int i = 0; i < k->n; i++) g4_net_spelled(p->net, from, to, k->ranges[i].low, k->ranges[i].high, p->spelling);
    g4_net_class_free(p->net, k);
}

/* (...) at pos; returns the node behind it. */
static int32_t g4_oldpattern_group(g4_oldpattern *p, int32_t from)
{
    p->pos++;
    if (!p->is_notation && p->n - p->pos >= 2 && p->s[p->pos] == '?') {
        if (p->s[p->pos + 1] != ':') g4_oldpattern_fail(p, "lookaround and named groups are not supported");
        p->pos += 2;
    }
    if (p->depth++ > G4_OLDPATTERN_MAX_DEPTH) {
        char why[48];
        snprintf(why, sizeof why, "nested more than %d deep", G4_OLDPATTERN_MAX_DEPTH);
        g4_oldpattern_fail(p, why);
    }
    const int32_t end = p->st == G4_OK ? g4_oldpattern_alternatives(p, from) : from;
    p->depth--;
    if (!g4_oldpattern_next_is(p, ')')) g4_oldpattern_fail(p, "a group without )");
    p->pos++;
    return end;
}

/* One character or shorthand class; returns the node behind it. */
static int32_t g4_oldpattern_single(g4_oldpattern *p, int32_t from)
{
    const int32_t to = g4_net_node(p->net);
    g4_class k = { 0 };
    uint32_t cp;
    if (g4_oldpattern_char(p, &cp))
        g4_net_class_shorthand(p->net, &k, (char)cp);
    else
        g4_net_class_add(p->net, &k, cp, cp);
    g4_oldpattern_put_class(p, from, to, &k);
    return to;
}

/* "..." at pos, in the notation; returns the node behind it. */
static int32_t g4_old_notation_text(g4_oldpattern *p, int32_t from)
{
    p->pos++;
    while (p->pos < p->n && p->s[p->pos] != '"' && p->st == G4_OK && !g4_net_stops(p->net))
        from = g4_oldpattern_single(p, from);
    if (p->pos >= p->n) g4_oldpattern_fail(p, "a text without its closing quote");
    p->pos++;
    return from;
}

/* The rule of that name, which is made if there is none yet. */
static int g4_rule_named(g4_net *net, const char *name, size_t n)
{
    for (int r = 0; r < net->n_rules; r++) {
        const g4_rule *rule = &net->rules[r];
        if (rule->name_len == n && rule->name != NULL && memcmp(rule->name, name, n) == 0) return r;
    }
    return g4_net_rule(net, name, n);
}

/* A call of the rule whose name is at pos, in the notation; returns the node behind it. */
static int32_t g4_old_notation_call(g4_oldpattern *p, int32_t from)
{
    const int32_t to = g4_net_node(p->net);
    const size_t start = p->pos;
    p->pos = g4_old_skip_name(p, start);
    g4_net_call(p->net, from, to, g4_rule_named(p->net, p->s + start, p->pos - start));
    return to;
}

/* [...] or . at pos; returns the node behind it. */
static int32_t g4_oldpattern_any_of(g4_oldpattern *p, int32_t from)
{
    const int32_t to = g4_net_node(p->net);
    g4_class k = { 0 };
    if (p->s[p->pos] == '[') {
        g4_oldpattern_class(p, &k);
    } else { /* anything but the end of a line */
        p->pos++;
        g4_net_class_add(p->net, &k, '\n', '\n');
        g4_net_class_add(p->net, &k, '\r', '\r');
        if (!p->is_notation) g4_net_class_add(p->net, &k, 0x2028, 0x2029);
        g4_net_class_negate(p->net, &k, G4_OLD_MAX_CHAR);
    }
    g4_oldpattern_put_class(p, from, to, &k);
    return to;
}

/* One atom; returns the node behind it. */
static int32_t g4_oldpattern_atom(g4_oldpattern *p, int32_t from)
{
    const char ch = p->s[p->pos];
    if (ch == '(') return g4_oldpattern_group(p, from);
    if (ch == '[' || ch == '.') return g4_oldpattern_any_of(p, from);
    if (p->is_notation) {
        if (ch == '"') return g4_old_notation_text(p, from);
        if (g4_old_is_name_char(ch)) return g4_old_notation_call(p, from);
        g4_oldpattern_fail(p, "expected a text in quotes, a class, a name or a group");
        return from;
    }
    if (g4_is_one_of("*+?{", ch)) g4_oldpattern_fail(p, "nothing to repeat");
    if (ch == '^' || ch == '$') g4_oldpattern_fail(p, "^ and $ are supported at the ends of the whole pattern only");
    return p->st == G4_OK ? g4_oldpattern_single(p, from) : from;
}

/* ---- Repetition, sequences, alternatives --------------------------------------------------------- */

/* {m} {m,} {m,n} at pos; max < 0: no end. */
static void g4_oldpattern_counts(g4_oldpattern *p, int *min, int *max)
{
    int counts[2] = { 0, -1 }, which = 0, n_digits = 0;
    for (p->pos++; p->pos < p->n && p->s[p->pos] != '}'; p->pos++) {
        const char ch = p->s[p->pos];
        if (ch == ',' && which == 0 && n_digits > 0) {
            which = 1;
            n_digits = 0;
        } else if (g4_is_digit(ch) && n_digits < 6) {
            counts[which] = (n_digits == 0 ? 0 : counts[which] * 10) + (ch - '0');
            n_digits++;
        } else {
            g4_oldpattern_fail(p, "a bad {m,n}");
            return;
        }
    }
    if (p->pos >= p->n || (which == 0 && n_digits == 0)) {
        g4_oldpattern_fail(p, "a bad {m,n}");
        return;
    }
    p->pos++;
    *min = counts[0];
    *max = counts[which];
    if (*max >= 0 && *max < *min) g4_oldpattern_fail(p, "{m,n} with n below m");
}

/* * + ? or {...} at pos, if there is one; max < 0: no end. */
static void g4_oldpattern_quantifier(g4_oldpattern *p, int *min, int *max)
{
    g4_old_notation_space(p);
    *min = *max = 1;
    if (p->pos >= p->n || !g4_is_one_of("*+?{", p->s[p->pos])) return;
    const char ch = p->s[p->pos];
    if (ch == '{') {
        g4_oldpattern_counts(p, min, max);
    } else {
        p->pos++;
        *min = ch == '+';
        *max = ch == '?' ? 1 : -1;
    }
    if (p->st == G4_OK && !p->is_notation && g4_oldpattern_next_is(p, '?')) p->pos++; /* lazy: the same language */
}

/* The atom at `start`, again; returns the node behind it. pos is then behind the atom. */
static int32_t g4_oldpattern_again(g4_oldpattern *p, int32_t from, size_t start)
{
    p->pos = start;
    return p->st == G4_OK && !p->net->failed ? g4_oldpattern_atom(p, from) : from;
}

/* The atom at `start` min to max times; returns the node behind it. */
static int32_t g4_oldpattern_repeat(g4_oldpattern *p, int32_t from, size_t start, int min, int max)
{
    g4_net *net = p->net;
    for (int i = 0; i < min && p->st == G4_OK && !g4_net_stops_now(net); i++)
        from = g4_oldpattern_again(p, from, start);
    if (max < 0) { /* a loop on a node of its own */
        const int32_t loop = g4_net_node(net), out = g4_net_node(net);
        g4_net_empty(net, from, loop);
        g4_net_empty(net, g4_oldpattern_again(p, loop, start), loop);
        g4_net_empty(net, loop, out);
        return out;
    }
    if (max > min) {
        const int32_t out = g4_net_node(net);
        for (int i = min; i < max && p->st == G4_OK && !g4_net_stops_now(net); i++) {
            const int32_t here =
                g4_net_node(net); /* so that alternatives do not share a node with what stands before */
            g4_net_empty(net, from, here);
            g4_net_empty(net, here, out);
            from = g4_oldpattern_again(p, here, start);
        }
        g4_net_empty(net, from, out);
        return out;
    }
    if (max == 0) g4_oldpattern_again(p, g4_net_node(net), start); /* nothing, but it must be well-formed */
    return from;
}

/* Does the sequence end here? */
static int g4_oldpattern_is_end(const g4_oldpattern *p)
{
    if (p->pos >= p->n || p->st != G4_OK || g4_net_stops_now(p->net) || p->s[p->pos] == '|' || p->s[p->pos] == ')')
        return 1;
    if (!p->is_notation) return p->s[p->pos] == '$' && p->depth == 0 && (p->pos + 1 >= p->n || p->s[p->pos + 1] == '|');
    if (!g4_old_is_name_char(p->s[p->pos])) return 0;
    const size_t next =
        g4_skip_blanks(p->s, p->n, g4_old_skip_name(p, p->pos)); /* the next rule's name ends this one */
    return p->n - next >= 3 && memcmp(p->s + next, "::=", 3) == 0;
}

static int32_t g4_oldpattern_sequence(g4_oldpattern *p, int32_t from)
{
    for (;;) {
        g4_old_notation_space(p);
        if (g4_oldpattern_is_end(p)) return from;
        const size_t start = p->pos, after = g4_oldpattern_skip(p, start);
        int min, max;
        p->pos = after;
        g4_oldpattern_quantifier(p, &min, &max);
        const size_t end = p->pos;
        from = g4_oldpattern_repeat(p, from, start, min, max);
        if (p->st == G4_OK && p->pos != after) g4_oldpattern_fail(p, "malformed");
        p->pos = end;
    }
}

static int32_t g4_oldpattern_alternatives(g4_oldpattern *p, int32_t from)
{
    const int32_t to = g4_net_node(p->net);
    for (;;) {
        const int32_t start = g4_net_node(p->net);
        g4_net_empty(p->net, from, start);
        g4_net_empty(p->net, g4_oldpattern_sequence(p, start), to);
        if (!g4_oldpattern_next_is(p, '|') || p->st != G4_OK) return to;
        p->pos++;
    }
}

/* ---- Patterns ------------------------------------------------------------------------------------ */

/* One alternative of a whole pattern, with its own ^ and $; where they are missing, any characters may stand. Returns
 * the node behind it. */
static int32_t g4_oldpattern_anchored(g4_oldpattern *p, int32_t from)
{
    g4_net *net = p->net;
    const int32_t start = g4_net_node(net);
    g4_net_empty(net, from, start);
    if (g4_oldpattern_next_is(p, '^'))
        p->pos++;
    else
        g4_net_spelled(net, start, start, 0, G4_OLD_MAX_CHAR, p->spelling);
    const int32_t begin = g4_net_node(net);
    g4_net_empty(net, start, begin);
    const int32_t end = g4_oldpattern_sequence(p, begin);
    if (g4_oldpattern_next_is(p, '$')) {
        p->pos++;
        return end;
    }
    const int32_t rest = g4_net_node(net);
    g4_net_empty(net, end, rest);
    g4_net_spelled(net, rest, rest, 0, G4_OLD_MAX_CHAR, p->spelling);
    return rest;
}

g4_status g4_net_pattern(g4_net *net, int32_t from, int32_t *to, const char *s, size_t n, g4_spelling spelling,
                         const char *what, g4_error *err)
{
    g4_oldpattern p = { .net = net, .s = s, .n = n, .spelling = spelling, .what = what, .err = err };
    *to = g4_net_node(net);
    for (;;) {
        g4_net_empty(net, g4_oldpattern_anchored(&p, from), *to);
        if (p.st != G4_OK || !g4_oldpattern_next_is(&p, '|')) break;
        p.pos++;
    }
    if (p.st == G4_OK && p.pos < n) g4_oldpattern_fail(&p, "unexpected )");
    return p.st;
}

int32_t g4_net_expression(g4_net *net, int32_t from, const char *s)
{
    g4_oldpattern p = { .net = net, .s = s, .n = strlen(s), .what = s };
    return g4_oldpattern_alternatives(&p, from);
}
