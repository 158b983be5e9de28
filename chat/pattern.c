/* pattern.c - regular expressions of ECMA-262, in unicode mode, to regular languages. A pattern is read into a tree,
 * whose parts are then made from the last to the first: what a part and all behind it allow is made from what is
 * allowed behind it, so that a lookahead is an `and` with the rest of the text. What looks back asks only for the
 * character before, and there are few kinds of those: what is allowed is made once for each kind. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <string.h>

#define G4_PATTERN_MAX_DEPTH 100       /* of groups */
#define G4_PATTERN_MAX_COUNT (1 << 28) /* of a repeat; more is without end */
#define G4_PATTERN_MAX_UNROLLED 256    /* times that what looks around is written out */
#define G4_PATTERN_MAX_WORK 100000     /* parts made, those again that are written out */
#define G4_PATTERN_CLASSES 16          /* that are remembered */
#define G4_PATTERN_MAX_MARKS 3         /* classes that the character before is asked for */
#define G4_PATTERN_MAX_BEFORE (1 + (1 << G4_PATTERN_MAX_MARKS))
#define G4_PATTERN_MAX_PLACES (2 * G4_PATTERN_MAX_BEFORE)

/* ---- Escapes and classes ------------------------------------------------------------------------- */

void g4_scan_fail(g4_scan *p, const char *why)
{
    if (p->wrong == NULL) p->wrong = why; /* what failed before says what is wrong */
}

static void g4_scan_refuse(g4_scan *p, const char *why)
{
    if (p->wrong == NULL) p->is_unsupported = 1;
    g4_scan_fail(p, why);
}

int g4_scan_next_is(const g4_scan *p, char ch) { return p->pos < p->n && p->s[p->pos] == ch; }

static int g4_scan_skip(g4_scan *p, char ch)
{
    const int is_next = g4_scan_next_is(p, ch);
    p->pos += (size_t)is_next;
    return is_next;
}

/* So many digits of a number in hex, at pos. */
static void g4_scan_hex(g4_scan *p, size_t n_digits, uint32_t *cp)
{
    if (p->n - p->pos < n_digits || !g4_hex_read(p->s + p->pos, (int)n_digits, cp))
        g4_scan_fail(p, "a bad \\u or \\x escape");
    else
        p->pos += n_digits;
}

/* \u{...}, \uXXXX or two of them that are a surrogate pair, behind the u. */
static void g4_scan_unicode(g4_scan *p, uint32_t *cp)
{
    uint32_t low = 0;
    if (g4_scan_skip(p, '{')) {
        size_t n = 0;
        while (p->pos + n < p->n && p->s[p->pos + n] != '}') n++;
        const size_t zeros = n > 6 ? n - 6 : 0;
        for (size_t i = 0; i < zeros; i++)
            if (!g4_scan_skip(p, '0')) g4_scan_fail(p, "a bad \\u escape");
        if (n == 0) g4_scan_fail(p, "a bad \\u escape");
        if (p->wrong == NULL) g4_scan_hex(p, n - zeros, cp);
        if (p->wrong == NULL && (!g4_scan_skip(p, '}') || *cp > 0x10ffff)) g4_scan_fail(p, "a bad \\u escape");
    } else {
        g4_scan_hex(p, 4, cp);
    }
    if (p->wrong != NULL || *cp < 0xd800 || *cp > 0xdfff) return;
    if (*cp < 0xdc00 && p->n - p->pos >= 6 && p->s[p->pos] == '\\' && p->s[p->pos + 1] == 'u' &&
        g4_hex_read(p->s + p->pos + 2, 4, &low) && low >= 0xdc00 && low <= 0xdfff) {
        *cp = 0x10000 + ((*cp - 0xd800) << 10) + (low - 0xdc00);
        p->pos += 6;
    } else {
        g4_scan_refuse(p, "half of a surrogate pair is no character");
    }
}

/* \p{...}, \P{...} or a letter alone, behind the p. */
static void g4_scan_property(g4_scan *p, int is_negative, g4_class *k)
{
    const size_t start = p->pos;
    size_t n = 1, from = start;
    if (g4_scan_skip(p, '{')) {
        from = p->pos;
        while (from + n <= p->n && from + n - 1 < p->n && p->s[from + n - 1] != '}') n++;
        n--;
        p->pos = from + n;
        if (!g4_scan_skip(p, '}')) g4_scan_fail(p, "\\p without }");
    } else if (p->pos < p->n) {
        p->pos++;
    } else {
        n = 0;
    }
    if (p->wrong == NULL && !g4_class_property(p->r, k, p->s + from, n, is_negative)) {
        p->pos = start;
        g4_scan_refuse(p, "this property of characters is not known");
    }
}

/* What a backslash before pos means. */
static int g4_scan_escape(g4_scan *p, uint32_t *cp, g4_class *k)
{
    static const char letters[] = "nrtfv", values[] = "\n\r\t\f\v";
    if (p->pos >= p->n) {
        g4_scan_fail(p, "a backslash at the end");
        return 0;
    }
    const char ch = p->s[p->pos];
    if ((unsigned char)ch >= 0x80) { /* itself */
        const size_t size = g4_utf8_decode(p->s + p->pos, p->n - p->pos, cp);
        if (size == 0) g4_scan_fail(p, "malformed UTF-8");
        p->pos += size;
        return 0;
    }
    *cp = (unsigned char)ch;
    if (!g4_is_letter(ch) && !g4_is_digit(ch)) {
        p->pos++;
    } else if (g4_is_one_of("dDwWsS", ch)) {
        p->pos++;
        g4_class_shorthand(p->r, k, ch);
        return 1;
    } else if (ch == 'p' || ch == 'P') {
        p->pos++;
        g4_scan_property(p, ch == 'P', k);
        return 1;
    } else if (g4_is_one_of(letters, ch)) {
        p->pos++;
        *cp = (unsigned char)values[strchr(letters, ch) - letters];
    } else if (ch == 'x') {
        p->pos++;
        g4_scan_hex(p, 2, cp);
    } else if (ch == 'u') {
        p->pos++;
        g4_scan_unicode(p, cp);
    } else if (ch == 'c' && p->n - p->pos >= 2 && g4_is_letter(p->s[p->pos + 1])) {
        *cp = (uint32_t)p->s[p->pos + 1] & 31;
        p->pos += 2;
    } else if (ch == '0' && !(p->n - p->pos >= 2 && g4_is_digit(p->s[p->pos + 1]))) {
        p->pos++;
        *cp = 0;
    } else {
        g4_scan_refuse(p, ch == 'k' || (ch >= '1' && ch <= '9') ? "back references are not supported"
                                                                : "this escape is not supported");
    }
    return 0;
}

int g4_scan_char(g4_scan *p, uint32_t *cp, g4_class *k)
{
    const size_t size = g4_utf8_decode(p->s + p->pos, p->n - p->pos, cp);
    if (size == 0) {
        g4_scan_fail(p, p->pos < p->n ? "malformed UTF-8" : "ends too early");
        *cp = 0;
        return 0;
    }
    p->pos += size;
    return *cp == '\\' ? g4_scan_escape(p, cp, k) : 0;
}

/* A character or named class within [...]. */
static int g4_scan_member(g4_scan *p, uint32_t *cp, g4_class *k)
{
    if (p->n - p->pos < 2 || p->s[p->pos] != '\\' || p->s[p->pos + 1] != 'b') return g4_scan_char(p, cp, k);
    p->pos += 2;
    *cp = '\b';
    return 0;
}

void g4_scan_class(g4_scan *p, g4_class *k)
{
    const size_t start = p->pos++;
    const int is_negative = g4_scan_skip(p, '^');
    while (p->wrong == NULL && !g4_regular_stops(p->r) && !g4_scan_skip(p, ']')) {
        uint32_t low, high;
        if (p->pos >= p->n) {
            p->pos = start;
            g4_scan_fail(p, "a class without ]");
            return;
        }
        const size_t from = p->pos;
        int is_class = g4_scan_member(p, &low, k);
        if (p->n - p->pos >= 2 && p->s[p->pos] == '-' && p->s[p->pos + 1] != ']') {
            p->pos++;
            const int is_range = !g4_scan_member(p, &high, k) && !is_class;
            if (!is_range) g4_class_add(p->r, k, '-', '-'); /* between a named class and something else: itself */
            if (!is_range && is_class) {
                is_class = 0; /* high is a character or, as a class, added already */
                low = high;
            }
            if (is_range && high < low) {
                p->pos = from;
                g4_scan_fail(p, "a bad range in a class");
            } else if (is_range) {
                g4_class_add(p->r, k, low, high);
                continue;
            }
        }
        if (!is_class) g4_class_add(p->r, k, low, low);
    }
    if (is_negative)
        g4_class_negate(p->r, k);
    else
        g4_class_settle(p->r, k);
}

/* ---- The tree ------------------------------------------------------------------------------------ */

typedef enum {
    G4_PART_SEQUENCE,
    G4_PART_EITHER,
    G4_PART_CHAR,
    G4_PART_REPEAT,
    G4_PART_LOOK,
    G4_PART_START,
    G4_PART_END,
    G4_PART_BOUNDARY
} g4_part_of_pattern;

typedef struct {
    uint8_t kind;
    uint8_t is_negative, is_behind; /* LOOK; BOUNDARY: is_negative */
    uint8_t is_plain;               /* looks at nothing around it */
    uint8_t accepts;                /* may match the empty text */
    int32_t last, before;           /* the last of its parts; the part before it in the same whole; 0: none */
    int32_t min, max;               /* REPEAT; max < 0: no end */
    int32_t range, n_ranges;        /* CHAR: where its class stands in the ranges */
    g4_re re;                       /* what a plain one matches; < 0: not made */
    int mark;                       /* LOOK behind: which; < 0: none */
    size_t pos, end;                /* in the pattern; end: of CHAR */
} g4_pattern_part;

typedef struct {
    g4_scan in;
    g4_regular *r;
    g4_spelling spelling;
    g4_pattern_part *parts;              /* [0] is no part */
    int32_t classes[G4_PATTERN_CLASSES]; /* parts that are classes, by the hash of how they are written; 0: none */
    g4_class ranges;
    int n_parts, cap_parts, depth, work;
    int looks_at_start;
    int word;                             /* the mark that \b asks for; < 0: none */
    g4_class marks[G4_PATTERN_MAX_MARKS]; /* what is asked of the character before */
    int n_marks;
    /* Kinds of places: at the start, and behind a character of each kind. Where nothing looks back there is one. */
    int n_before;
    /* Within what repeats without an end and may be empty, each kind stands once more for the places at which this time
     * has not read anything yet. */
    int n_places;
    g4_class kinds[G4_PATTERN_MAX_BEFORE]; /* the characters before the place; [0] unused */
    g4_re kind_re[G4_PATTERN_MAX_BEFORE];
    g4_re any, rest; /* one character, any number of them */
} g4_pattern;

static int32_t g4_pattern_add(g4_pattern *p, g4_part_of_pattern kind, size_t pos)
{
    g4_pattern_part *parts =
        g4_array_grow(g4_regular_allocator(p->r), p->parts, p->n_parts, &p->cap_parts, sizeof *parts);
    if (parts == NULL) {
        g4_regular_fail(p->r, G4_NET_NO_MEMORY);
        return 0;
    }
    p->parts = parts;
    const int is_plain = kind <= G4_PART_REPEAT;
    parts[p->n_parts] = (g4_pattern_part) { .kind = (uint8_t)kind,
                                            .is_plain = (uint8_t)is_plain,
                                            .accepts = kind != G4_PART_CHAR && kind != G4_PART_EITHER,
                                            .re = -1,
                                            .mark = -1,
                                            .pos = pos };
    return p->n_parts++;
}

/* Make one the last part of another. */
static void g4_pattern_put(g4_pattern *p, int32_t whole, int32_t part)
{
    if (whole == 0 || part == 0) return;
    g4_pattern_part *w = &p->parts[whole], *k = &p->parts[part];
    k->before = w->last;
    w->last = part;
    if (w->kind == G4_PART_LOOK) return;
    w->is_plain &= k->is_plain;
    if (w->kind == G4_PART_EITHER)
        w->accepts |= k->accepts;
    else
        w->accepts &= k->accepts;
}

static int g4_pattern_stops(g4_pattern *p) { return p->in.wrong != NULL || g4_regular_stops(p->r); }

/* ---- Reading ------------------------------------------------------------------------------------- */

static int32_t g4_pattern_either(g4_pattern *p);

/* Where the \p{...} ends that begins at pos; 0: none does. */
static size_t g4_pattern_property_end(const g4_scan *in)
{
    size_t end = in->pos + 3;
    if (in->n - in->pos < 4 || in->s[in->pos] != '\\' || in->s[in->pos + 2] != '{') return 0;
    if (in->s[in->pos + 1] != 'p' && in->s[in->pos + 1] != 'P') return 0;
    while (end < in->n && in->s[end] != '}') end++;
    return end < in->n ? end + 1 : 0;
}

/* A class of hundreds of ranges is made once a pattern: a part like the one that is written as what stands at pos,
 * which is read; 0: there is none yet. *known: where it is to be put. */
static int32_t g4_pattern_class_again(g4_pattern *p, int32_t **known)
{
    g4_scan *in = &p->in;
    const size_t start = in->pos, end = g4_pattern_property_end(in);
    *known = NULL;
    if (end == 0) return 0;
    *known = &p->classes[g4_hash_bytes(in->s + start, end - start) % G4_PATTERN_CLASSES];
    if (**known == 0) return 0;
    const g4_pattern_part like = p->parts[**known];
    if (like.end - like.pos != end - start || memcmp(in->s + like.pos, in->s + start, end - start) != 0) return 0;
    const int32_t part = g4_pattern_add(p, G4_PART_CHAR, start);
    if (part == 0) return 0;
    p->parts[part].range = like.range;
    p->parts[part].n_ranges = like.n_ranges;
    p->parts[part].re = like.re;
    in->pos = end;
    return part;
}

/* A part of a class, which is freed. */
static int32_t g4_pattern_char(g4_pattern *p, g4_class *k, size_t pos)
{
    const int32_t part = g4_pattern_add(p, G4_PART_CHAR, pos);
    if (part != 0 && !g4_pattern_stops(p)) {
        p->parts[part].end = p->in.pos;
        p->parts[part].range = p->ranges.n;
        p->parts[part].n_ranges = k->n;
        for (int i = 0; i < k->n; i++) g4_class_add(p->r, &p->ranges, k->ranges[i].low, k->ranges[i].high);
        p->parts[part].re = g4_re_class(p->r, k, p->spelling);
    }
    g4_class_free(p->r, k);
    return part;
}

/* What stands behind the ( of a group: which kind it is. Returns the part that the group is to be put in; 0: none. */
static int32_t g4_pattern_group_kind(g4_pattern *p, size_t start)
{
    g4_scan *in = &p->in;
    const size_t left = in->n - in->pos;
    const char *s = in->s + in->pos;
    if (left < 2 || s[0] != '?') return 0;
    const int is_behind = left >= 3 && s[1] == '<' && (s[2] == '=' || s[2] == '!');
    if (s[1] == ':') {
        in->pos += 2;
        return 0;
    }
    if (s[1] == '=' || s[1] == '!' || is_behind) {
        const int32_t look = g4_pattern_add(p, G4_PART_LOOK, start);
        p->parts[look].is_behind = (uint8_t)is_behind;
        p->parts[look].is_negative = s[is_behind ? 2 : 1] == '!';
        in->pos += is_behind ? 3 : 2;
        return look;
    }
    size_t i = s[1] == 'P' ? 2 : 1; /* ?P< is Python's way to write ?< */
    if (i < left && s[i] == '<') {
        while (i < left && s[i] != '>') i++;
        if (i == left) g4_scan_fail(in, "a group's name without >");
        in->pos += i < left ? i + 1 : left;
        return 0;
    }
    g4_scan_refuse(in, "this kind of group is not supported");
    return 0;
}

/* (...) at pos. */
static int32_t g4_pattern_group(g4_pattern *p)
{
    const size_t start = p->in.pos++;
    const int32_t look = g4_pattern_group_kind(p, start);
    if (++p->depth > G4_PATTERN_MAX_DEPTH) {
        p->in.pos = start;
        g4_scan_refuse(&p->in, "groups are nested too deep");
    }
    const int32_t inner = g4_pattern_stops(p) ? 0 : g4_pattern_either(p);
    p->depth--;
    if (p->in.wrong == NULL && !g4_scan_skip(&p->in, ')')) {
        p->in.pos = start;
        g4_scan_fail(&p->in, "a group without )");
    }
    if (look == 0) return inner;
    g4_pattern_put(p, look, inner);
    return look;
}

/* Is there {m}, {m,} or {m,n} at pos? Otherwise a brace stands for itself. Returns the byte behind it, or 0. */
static size_t g4_pattern_counts(const g4_scan *in, int *min, int *max)
{
    int64_t counts[2] = { 0, -1 };
    size_t pos = in->pos + 1;
    int which = 0, n_digits[2] = { 0, 0 };
    for (; pos < in->n && in->s[pos] != '}'; pos++) {
        const char ch = in->s[pos];
        if (ch == ',' && which == 0) {
            which = 1;
        } else if (g4_is_digit(ch)) {
            if (n_digits[which]++ == 0) counts[which] = 0;
            counts[which] = counts[which] * 10 + (ch - '0');
            if (counts[which] > G4_PATTERN_MAX_COUNT) counts[which] = G4_PATTERN_MAX_COUNT;
        } else {
            return 0;
        }
    }
    if (pos >= in->n || n_digits[0] == 0) return 0;
    if (which == 0) counts[1] = counts[0];
    *min = (int)counts[0];
    *max = counts[1] == G4_PATTERN_MAX_COUNT ? -1 : (int)counts[1];
    return pos + 1;
}

/* The part, or a repeat of it when there is a quantifier at pos. */
static int32_t g4_pattern_quantified(g4_pattern *p, int32_t part)
{
    g4_scan *in = &p->in;
    const size_t start = in->pos;
    int min = 0, max = -1;
    if (in->pos >= in->n || !g4_is_one_of("*+?{", in->s[in->pos])) return part;
    const char ch = in->s[in->pos];
    const size_t behind = ch == '{' ? g4_pattern_counts(in, &min, &max) : in->pos + 1;
    if (behind == 0) return part;
    in->pos = behind;
    if (ch == '+') min = 1;
    if (ch == '?') max = 1;
    g4_scan_skip(in, '?'); /* lazy: the same language */
    if (max >= 0 && max < min) {
        in->pos = start;
        g4_scan_fail(in, "{m,n} with n below m");
    }
    const int32_t repeat = g4_pattern_add(p, G4_PART_REPEAT, start);
    g4_pattern_put(p, repeat, part);
    if (repeat == 0) return 0;
    p->parts[repeat].min = min;
    p->parts[repeat].max = max;
    p->parts[repeat].accepts |= min == 0;
    return repeat;
}

/* One part, without what says how often it may stand there. */
static int32_t g4_pattern_atom(g4_pattern *p)
{
    g4_scan *in = &p->in;
    const size_t start = in->pos;
    const char ch = in->s[start], next = in->n - start >= 2 ? in->s[start + 1] : '\0';
    g4_class k = { 0 };
    int32_t *known;
    int min, max;
    uint32_t cp;
    if (ch == '(') return g4_pattern_group(p);
    if (ch == '^' || ch == '$') {
        in->pos++;
        p->looks_at_start |= ch == '^';
        return g4_pattern_add(p, ch == '^' ? G4_PART_START : G4_PART_END, start);
    }
    if (ch == '\\' && (next == 'b' || next == 'B')) {
        const int32_t boundary = g4_pattern_add(p, G4_PART_BOUNDARY, start);
        in->pos += 2;
        p->parts[boundary].is_negative = next == 'B';
        return boundary;
    }
    if (g4_is_one_of("*+?", ch) || (ch == '{' && g4_pattern_counts(in, &min, &max) != 0)) {
        g4_scan_fail(in, "nothing to repeat");
        return 0;
    }
    const int32_t again = g4_pattern_class_again(p, &known);
    if (again != 0) return again;
    if (ch == '[') {
        g4_scan_class(in, &k);
    } else if (ch == '.') { /* anything but the end of a line */
        in->pos++;
        g4_class_add(p->r, &k, '\n', '\n');
        g4_class_add(p->r, &k, '\r', '\r');
        g4_class_add(p->r, &k, 0x2028, 0x2029);
        g4_class_negate(p->r, &k);
    } else if (!g4_scan_char(in, &cp, &k)) {
        g4_class_add(p->r, &k, cp, cp);
    }
    g4_class_settle(p->r, &k);
    const int32_t part = g4_pattern_char(p, &k, start);
    if (known != NULL) *known = part;
    return part;
}

/* Alternatives at pos, up to a ) or the end. */
static int32_t g4_pattern_either(g4_pattern *p)
{
    const int32_t either = g4_pattern_add(p, G4_PART_EITHER, p->in.pos);
    do {
        const int32_t sequence = g4_pattern_add(p, G4_PART_SEQUENCE, p->in.pos);
        while (!g4_pattern_stops(p) && p->in.pos < p->in.n && p->in.s[p->in.pos] != '|' && p->in.s[p->in.pos] != ')') {
            const int32_t atom = g4_pattern_atom(p);
            if (!g4_pattern_stops(p)) g4_pattern_put(p, sequence, g4_pattern_quantified(p, atom));
        }
        g4_pattern_put(p, either, sequence);
    } while (!g4_pattern_stops(p) && g4_scan_skip(&p->in, '|'));
    return either;
}

/* ---- What the character before may be ------------------------------------------------------------ */

/* The number of the mark of a class. Returns -1 when there are too many. */
static int g4_pattern_mark(g4_pattern *p, const g4_char_range *ranges, int n)
{
    for (int i = 0; i < p->n_marks; i++)
        if (p->marks[i].n == n && memcmp(p->marks[i].ranges, ranges, (size_t)n * sizeof *ranges) == 0) return i;
    if (p->n_marks == G4_PATTERN_MAX_MARKS) return -1;
    for (int i = 0; i < n; i++) g4_class_add(p->r, &p->marks[p->n_marks], ranges[i].low, ranges[i].high);
    return p->n_marks++;
}

/* The only part that there is in part, as far down as that goes. */
static int32_t g4_pattern_only(const g4_pattern *p, int32_t part)
{
    while ((p->parts[part].kind == G4_PART_EITHER || p->parts[part].kind == G4_PART_SEQUENCE) &&
           p->parts[part].last != 0 && p->parts[p->parts[part].last].before == 0)
        part = p->parts[part].last;
    return part;
}

/* Find what the parts ask of the character before them. */
static void g4_pattern_find_marks(g4_pattern *p)
{
    g4_class word = { 0 };
    p->word = -1;
    for (int32_t i = 1; i < p->n_parts && !g4_pattern_stops(p); i++) {
        g4_pattern_part *k = &p->parts[i];
        if (k->kind == G4_PART_BOUNDARY && p->word < 0) {
            g4_class_shorthand(p->r, &word, 'w');
            p->word = g4_pattern_mark(p, word.ranges, word.n);
            if (p->word < 0) g4_scan_refuse(&p->in, "too many kinds of lookbehind");
        }
        if (k->kind != G4_PART_LOOK || !k->is_behind) continue;
        const g4_pattern_part *only = &p->parts[g4_pattern_only(p, k->last)];
        if (only->kind == G4_PART_CHAR) k->mark = g4_pattern_mark(p, p->ranges.ranges + only->range, only->n_ranges);
    }
    g4_class_free(p->r, &word);
}

/* The kinds of characters that the marks divide all into. */
static void g4_pattern_make_kinds(g4_pattern *p)
{
    p->n_before = p->n_places = p->n_marks > 0 ? 1 + (1 << p->n_marks) : 1 + p->looks_at_start;
    for (int i = 1; i < p->n_before; i++) {
        g4_class all = { 0 };
        g4_class_add(p->r, &all, 0, 0x10ffff);
        for (int m = 0; m < p->n_marks; m++) {
            g4_class side = { 0 }, both = { 0 };
            for (int k = 0; k < p->marks[m].n; k++)
                g4_class_add(p->r, &side, p->marks[m].ranges[k].low, p->marks[m].ranges[k].high);
            if (((i - 1) >> m & 1) == 0) g4_class_negate(p->r, &side);
            g4_class_add_both(p->r, &both, &all, &side);
            g4_class_free(p->r, &side);
            g4_class_free(p->r, &all);
            all = both;
        }
        p->kind_re[i] = g4_re_class(p->r, &all, p->spelling);
        p->kinds[i] = all;
    }
}

static int g4_pattern_has_mark(const g4_pattern *p, int place, int mark)
{
    const int before = place % p->n_before;
    return before > 0 && ((before - 1) >> mark & 1);
}

/* ---- Making -------------------------------------------------------------------------------------- */

/* What a plain part matches. */
static g4_re g4_pattern_plain(g4_pattern *p, int32_t part)
{
    const g4_pattern_part k = p->parts[part];
    g4_re x = k.kind == G4_PART_EITHER ? G4_RE_NONE : G4_RE_EMPTY;
    if (k.re >= 0 || g4_pattern_stops(p)) return k.re >= 0 ? k.re : G4_RE_NONE;
    if (k.kind == G4_PART_REPEAT) {
        x = g4_re_repeat(p->r, g4_pattern_plain(p, k.last), k.min, k.max);
    } else if (k.kind == G4_PART_SEQUENCE) {
        for (int32_t i = k.last; i != 0; i = p->parts[i].before) x = g4_re_concat(p->r, g4_pattern_plain(p, i), x);
    } else {
        int n = 0, n_made = 0;
        for (int32_t i = k.last; i != 0; i = p->parts[i].before) n++;
        g4_re *texts = g4_alloc(g4_regular_allocator(p->r), (size_t)n + 1, sizeof *texts);
        if (texts == NULL) g4_regular_fail(p->r, G4_NET_NO_MEMORY);
        for (int32_t i = k.last; i != 0 && texts != NULL; i = p->parts[i].before)
            texts[n_made++] = g4_pattern_plain(p, i);
        x = g4_re_any_of(p->r, texts, n_made);
        g4_free(g4_regular_allocator(p->r), texts);
    }
    p->parts[part].re = x;
    return x;
}

/* Is the same allowed at all places that are not the start? *x gets what. */
static int g4_pattern_is_alike(const g4_pattern *p, const g4_re *then, g4_re *x)
{
    *x = then[p->n_before > 1];
    for (int i = 1; i < p->n_before; i++)
        if (then[i] != *x) return 0;
    return 1;
}

/* A character of a class, and what is allowed behind it by its kind. */
static g4_re g4_pattern_char_then(g4_pattern *p, const g4_pattern_part *k, const g4_re *then)
{
    const g4_class own = { .ranges = p->ranges.ranges + k->range, .n = k->n_ranges };
    g4_re x = G4_RE_NONE;
    for (int i = 1; i < p->n_before; i++) {
        g4_class both = { 0 };
        g4_class_add_both(p->r, &both, &own, &p->kinds[i]);
        x = g4_re_or(p->r, x, g4_re_concat(p->r, g4_re_class(p->r, &both, p->spelling), then[i]));
        g4_class_free(p->r, &both);
    }
    return x;
}

/* A plain part that is not taken apart, in front of `then`. The empty text leaves us where we are. */
static void g4_pattern_plain_then(g4_pattern *p, int32_t part, g4_re *then)
{
    const g4_pattern_part k = p->parts[part];
    const g4_re own = g4_pattern_plain(p, part);
    g4_re x = G4_RE_NONE, behind;
    if (g4_pattern_is_alike(p, then, &behind)) {
        const g4_re same = g4_re_concat(p->r, own, behind);
        if (k.accepts) {
            const g4_re not_empty = g4_re_and(p->r, own, g4_re_concat(p->r, p->any, p->rest));
            x = g4_re_concat(p->r, not_empty, behind);
        }
        for (int i = 0; i < p->n_places; i++)
            then[i] = !k.accepts || then[i] == behind ? same : g4_re_or(p->r, then[i], x);
        return;
    }
    if (k.kind == G4_PART_CHAR) x = g4_pattern_char_then(p, &k, then);
    for (int i = 1; i < p->n_before && k.kind != G4_PART_CHAR; i++) {
        const g4_re ends = g4_re_concat(p->r, p->rest, p->kind_re[i]);
        x = g4_re_or(p->r, x, g4_re_concat(p->r, g4_re_and(p->r, own, ends), then[i]));
    }
    for (int i = 0; i < p->n_places; i++) then[i] = k.accepts ? g4_re_or(p->r, then[i], x) : x;
}

static void g4_pattern_then(g4_pattern *p, int32_t part, g4_re *then);

/* A plain repeat, whose last time is made apart, where places behind it differ. */
static void g4_pattern_last_then(g4_pattern *p, const g4_pattern_part *k, g4_re *then)
{
    g4_re once[G4_PATTERN_MAX_PLACES];
    memcpy(once, then, (size_t)p->n_places * sizeof *once);
    g4_pattern_then(p, k->last, once); /* it reads something: the same from all places */
    const g4_re others =
        g4_re_repeat(p->r, g4_pattern_plain(p, k->last), g4_max_int(k->min - 1, 0), k->max < 0 ? -1 : k->max - 1);
    const g4_re x = g4_re_concat(p->r, others, once[0]);
    for (int i = 0; i < p->n_places; i++) then[i] = k->min == 0 ? g4_re_or(p->r, then[i], x) : x;
}

/* Parts from `last` back to the first, or up to `end`, in front of `then`. */
static void g4_pattern_sequence_then(g4_pattern *p, int32_t last, int32_t end, g4_re *then)
{
    for (int32_t i = last; i != end && i != 0 && !g4_pattern_stops(p); i = p->parts[i].before)
        g4_pattern_then(p, i, then);
}

static void g4_pattern_either_then(g4_pattern *p, int32_t last, g4_re *then)
{
    g4_re one[G4_PATTERN_MAX_PLACES], all[G4_PATTERN_MAX_PLACES] = { G4_RE_NONE };
    const size_t size = (size_t)p->n_places * sizeof *one;
    for (int32_t i = last; i != 0 && !g4_pattern_stops(p); i = p->parts[i].before) {
        memcpy(one, then, size);
        g4_pattern_then(p, i, one);
        for (int b = 0; b < p->n_places; b++) all[b] = g4_re_or(p->r, all[b], one[b]);
    }
    memcpy(then, all, size);
}

/* What tells the loop of that part apart from all others, whatever pattern they are of: what comes behind it, and what
 * the pattern says. */
static void g4_pattern_seed(const g4_pattern *p, int32_t part, int place, const g4_re *then, uint64_t seed[2])
{
    for (int k = 0; k < 2; k++) {
        uint64_t h = 0xcbf29ce484222325u + (uint64_t)k, print[2];
        for (size_t i = 0; i < p->in.n; i++) h = (h ^ (unsigned char)p->in.s[i]) * (0x100000001b3u + 2 * (uint64_t)k);
        h = (h ^ (uint64_t)part << 16 ^ (uint64_t)(place << 1) ^ p->spelling) * 0x9e3779b97f4a7c15u;
        for (int b = 0; b < p->n_before; b++) {
            g4_re_print(p->r, then[b], print);
            h = (h ^ h >> 29 ^ print[k]) * 0xd6e8feb86659fd93u;
        }
        seed[k] = h ^ h >> 32;
    }
}

/* Any number of times a part that looks around, in front of `then`: what that allows is made of itself. */
static void g4_pattern_loop_then(g4_pattern *p, int32_t part, g4_re *then)
{
    const int n = p->n_before, n_places = p->n_places, may_stall = p->parts[part].accepts;
    g4_re later[G4_PATTERN_MAX_BEFORE] = { G4_RE_NONE }, once[G4_PATTERN_MAX_PLACES] = { G4_RE_NONE };
    for (int b = 0; b < n; b++) {
        uint64_t seed[2];
        g4_pattern_seed(p, part, b, then, seed);
        later[b] = once[b] = g4_re_later(p->r, g4_re_accepts(p->r, then[b]), seed);
    }
    if (may_stall) p->n_places = 2 * n;
    g4_pattern_then(p, part, once);
    p->n_places = n_places;
    for (int b = 0; b < n; b++) {
        const g4_re again = once[may_stall ? n + b : b];
        g4_re_define(p->r, later[b], g4_re_or(p->r, then[b], again));
        then[b] = later[b];
        if (n_places > n) then[n + b] = g4_re_or(p->r, then[n + b], again);
    }
}

/* A repeat of what looks around: its times are written out. */
static void g4_pattern_repeat_then(g4_pattern *p, const g4_pattern_part *k, g4_re *then)
{
    g4_re end[G4_PATTERN_MAX_PLACES] = { G4_RE_NONE };
    const int n_times = k->max < 0 ? k->min : k->max;
    if (n_times > G4_PATTERN_MAX_UNROLLED) {
        p->in.pos = k->pos;
        g4_scan_refuse(&p->in, "what looks around cannot be repeated so often");
        return;
    }
    memcpy(end, then, (size_t)p->n_places * sizeof *end);
    if (k->max < 0) g4_pattern_loop_then(p, k->last, then);
    for (int i = n_times - 1; i >= 0 && !g4_pattern_stops(p); i--) {
        g4_pattern_then(p, k->last, then);
        for (int b = 0; b < p->n_places && i >= k->min; b++) then[b] = g4_re_or(p->r, then[b], end[b]);
    }
}

static void g4_pattern_look_then(g4_pattern *p, const g4_pattern_part *k, g4_re *then)
{
    g4_re seen[G4_PATTERN_MAX_PLACES] = { G4_RE_NONE };
    for (int b = 0; b < p->n_places; b++) seen[b] = p->rest;
    if (k->is_behind && k->mark < 0) {
        p->in.pos = k->pos;
        g4_scan_refuse(&p->in, "this lookbehind is not supported");
        return;
    }
    if (!k->is_behind) g4_pattern_then(p, k->last, seen);
    for (int b = 0; b < p->n_places; b++) {
        if (k->is_behind)
            then[b] = g4_pattern_has_mark(p, b, k->mark) != k->is_negative ? then[b] : G4_RE_NONE;
        else
            then[b] = g4_re_and(p->r, then[b], k->is_negative ? g4_re_not(p->r, seen[b]) : seen[b]);
    }
}

static void g4_pattern_boundary_then(g4_pattern *p, const g4_pattern_part *k, g4_re *then)
{
    g4_class word = { 0 };
    g4_class_shorthand(p->r, &word, 'w');
    const g4_re next = g4_re_concat(p->r, g4_re_class(p->r, &word, p->spelling), p->rest);
    g4_class_free(p->r, &word);
    for (int b = 0; b < p->n_places; b++) {
        const int wants_word = g4_pattern_has_mark(p, b, p->word) == k->is_negative;
        then[b] = g4_re_and(p->r, then[b], wants_word ? next : g4_re_not(p->r, next));
    }
}

/* then[b]: what is allowed behind the part at a place of kind b. It becomes what is allowed from the part on. */
static void g4_pattern_then(g4_pattern *p, int32_t part, g4_re *then)
{
    const g4_pattern_part k = p->parts[part];
    g4_re x;
    if (++p->work > G4_PATTERN_MAX_WORK) {
        p->in.pos = k.pos;
        g4_scan_refuse(&p->in, "too large");
    }
    if (g4_pattern_stops(p)) return;
    const int is_apart = k.kind == G4_PART_SEQUENCE || k.kind == G4_PART_EITHER;
    if (k.kind == G4_PART_REPEAT && k.is_plain && k.max != 0 && !p->parts[k.last].accepts &&
        !g4_pattern_is_alike(p, then, &x)) {
        g4_pattern_last_then(p, &k, then);
        return;
    }
    if (k.is_plain && !(is_apart && !g4_pattern_is_alike(p, then, &x))) {
        g4_pattern_plain_then(p, part, then);
        return;
    }
    switch ((g4_part_of_pattern)k.kind) {
    case G4_PART_SEQUENCE: g4_pattern_sequence_then(p, k.last, 0, then); break;
    case G4_PART_EITHER: g4_pattern_either_then(p, k.last, then); break;
    case G4_PART_REPEAT: g4_pattern_repeat_then(p, &k, then); break;
    case G4_PART_LOOK: g4_pattern_look_then(p, &k, then); break;
    case G4_PART_BOUNDARY: g4_pattern_boundary_then(p, &k, then); break;
    case G4_PART_START:
        for (int b = 0; b < p->n_places; b++)
            if (b % p->n_before != 0) then[b] = G4_RE_NONE;
        break;
    case G4_PART_END:
        for (int b = 0; b < p->n_places; b++) then[b] = g4_re_and(p->r, then[b], G4_RE_EMPTY);
        break;
    case G4_PART_CHAR: break;
    }
}

/* ---- Whole patterns ------------------------------------------------------------------------------ */

/* The texts in which some place allows what is allowed there. */
static g4_re g4_pattern_anywhere(g4_pattern *p, const g4_re *then)
{
    g4_re x = then[0], behind;
    if (g4_pattern_is_alike(p, then, &behind)) {
        if (behind == then[0]) return g4_re_concat(p->r, p->rest, behind);
        return g4_re_or(p->r, x, g4_re_concat(p->r, p->any, g4_re_concat(p->r, p->rest, behind)));
    }
    for (int b = 1; b < p->n_before; b++)
        x = g4_re_or(p->r, x, g4_re_concat(p->r, g4_re_concat(p->r, p->rest, p->kind_re[b]), then[b]));
    return x;
}

/* Does a part look at what comes behind it? */
static int g4_pattern_looks_ahead(const g4_pattern *p, int32_t part)
{
    const g4_pattern_part *k = &p->parts[part];
    if (k->kind == G4_PART_END || k->kind == G4_PART_BOUNDARY || (k->kind == G4_PART_LOOK && !k->is_behind)) return 1;
    if (k->is_plain) return 0;
    for (int32_t i = k->last; i != 0; i = p->parts[i].before)
        if (g4_pattern_looks_ahead(p, i)) return 1;
    return 0;
}

/* A whole sequence with a lookbehind `look` of more than one character in it: what stands before it ends, or does not
 * end, as that says. */
static g4_re g4_pattern_split(g4_pattern *p, int32_t sequence, int32_t look)
{
    const g4_pattern_part k = p->parts[look];
    g4_re before[G4_PATTERN_MAX_BEFORE] = { G4_RE_NONE }, then[G4_PATTERN_MAX_BEFORE] = { G4_RE_NONE }, behind;
    int is_sound = p->parts[k.last].is_plain;
    for (int32_t i = k.before; i != 0; i = p->parts[i].before) is_sound &= !g4_pattern_looks_ahead(p, i);
    for (int b = 0; b < p->n_before; b++) {
        before[b] = G4_RE_EMPTY;
        then[b] = p->rest;
    }
    g4_pattern_sequence_then(p, p->parts[sequence].last, look, then);
    if (!g4_pattern_is_alike(p, then, &behind) || then[0] != behind || !is_sound) {
        p->in.pos = k.pos;
        g4_scan_refuse(&p->in, "this lookbehind is not supported");
        return G4_RE_NONE;
    }
    g4_pattern_sequence_then(p, k.before, 0, before);
    const g4_re ends = g4_re_concat(p->r, p->rest, g4_pattern_plain(p, k.last));
    const g4_re first = g4_pattern_anywhere(p, before);
    return g4_re_concat(p->r, g4_re_and(p->r, first, k.is_negative ? g4_re_not(p->r, ends) : ends), behind);
}

static g4_re g4_pattern_whole(g4_pattern *p, int32_t root)
{
    g4_re then[G4_PATTERN_MAX_BEFORE] = { G4_RE_NONE }, x = G4_RE_NONE;
    int is_split = 0;
    for (int32_t s = p->parts[root].last; s != 0 && !is_split; s = p->parts[s].before)
        for (int32_t i = p->parts[s].last; i != 0; i = p->parts[i].before)
            is_split |= p->parts[i].kind == G4_PART_LOOK && p->parts[i].is_behind && p->parts[i].mark < 0;
    for (int b = 0; b < p->n_before; b++) then[b] = p->rest;
    if (!is_split) {
        g4_pattern_then(p, root, then);
        return g4_pattern_anywhere(p, then);
    }
    for (int32_t s = p->parts[root].last; s != 0 && !g4_pattern_stops(p); s = p->parts[s].before) {
        int32_t look = p->parts[s].last;
        while (look != 0 &&
               !(p->parts[look].kind == G4_PART_LOOK && p->parts[look].is_behind && p->parts[look].mark < 0))
            look = p->parts[look].before;
        for (int b = 0; b < p->n_before; b++) then[b] = p->rest;
        if (look == 0) g4_pattern_then(p, s, then);
        x = g4_re_or(p->r, x, look == 0 ? g4_pattern_anywhere(p, then) : g4_pattern_split(p, s, look));
    }
    return x;
}

/* How the reading or making ended. */
static g4_status g4_pattern_status(const g4_pattern *p, const char *what, g4_error *err)
{
    switch (g4_regular_failed(p->r)) {
    case G4_NET_TOO_LARGE: return g4_fail(err, G4_ERR_UNSUPPORTED, "%s: too large", what);
    case G4_NET_NO_MEMORY: return g4_fail(err, G4_ERR_MEMORY, "%s: no memory", what);
    case G4_NET_HALTED: return g4_fail(err, G4_ERR_CANCELED, "%s: the call was ended", what);
    case G4_NET_FINE: break;
    }
    if (p->in.wrong != NULL) {
        size_t place = 1;
        for (size_t i = 0; i < p->in.pos && i < p->in.n; i++) place += !g4_utf8_continues(p->in.s[i]);
        return g4_fail(err, p->in.is_unsupported ? G4_ERR_UNSUPPORTED : G4_ERR_FORMAT, "%s: at character %zu: %s", what,
                       place, p->in.wrong);
    }
    return G4_OK;
}

g4_status g4_pattern_re(g4_regular *r, g4_re *out, const char *s, size_t n, g4_spelling spelling, const char *what,
                        g4_error *err)
{
    g4_pattern p = { .in = { .r = r, .s = s, .n = n }, .r = r, .spelling = spelling };
    g4_class all = { 0 };
    *out = G4_RE_NONE;
    g4_class_add(r, &all, 0, 0x10ffff);
    p.any = g4_re_class(r, &all, spelling);
    p.rest = g4_re_repeat(r, p.any, 0, -1);
    g4_class_free(r, &all);
    g4_pattern_add(&p, G4_PART_SEQUENCE, 0); /* no part */
    const int32_t root = g4_regular_failed(r) ? 0 : g4_pattern_either(&p);
    if (!g4_pattern_stops(&p) && p.in.pos < n) g4_scan_fail(&p.in, "unexpected )");
    if (!g4_pattern_stops(&p)) g4_pattern_find_marks(&p);
    if (!g4_pattern_stops(&p)) g4_pattern_make_kinds(&p);
    const g4_re x = g4_pattern_stops(&p) ? G4_RE_NONE : g4_pattern_whole(&p, root);
    const g4_status st = g4_pattern_status(&p, what, err);
    if (st == G4_OK) *out = x;
    for (int i = 0; i < p.n_marks; i++) g4_class_free(r, &p.marks[i]);
    for (int i = 0; i < G4_PATTERN_MAX_BEFORE; i++) g4_class_free(r, &p.kinds[i]);
    g4_class_free(r, &p.ranges);
    g4_free(g4_regular_allocator(r), p.parts);
    return st;
}
