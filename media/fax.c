/* fax.c - the codings of fax machines (ITU-T T.4 and T.6) as TIFF holds them: Modified Huffman, Group 3 of one and two
 * dimensions, Group 4. A row is a list of runs, white and black in turn, which come as words of lengths or as distances
 * to the runs of the row above. A damaged row is made as long as it must be, as libtiff does it, and what its damage
 * took from the last rows is white, as is what stands behind the end of a Group 4 picture. Other data that end before
 * the last row are an error. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#define G4_FAX_WHITE_BITS 12 /* of the longest word of a white run, and of a black one */
#define G4_FAX_BLACK_BITS 13
#define G4_FAX_MODE_BITS 7       /* of the longest word that tells how a run is given */
#define G4_FAX_ZEROS 11          /* at least, before the bit that ends an end of line */
#define G4_FAX_RUN_MAX (1 << 30) /* that words may add up to: more than any row has */

/* What a word says: a length below 64 ends a run, one above goes on; or one of these. */
enum { G4_FAX_EOL = 4094, G4_FAX_BAD };
/* How the next run is given: by the one above; as two lengths; or it ends next to where the one above ends. */
enum { G4_FAX_PASS = 16, G4_FAX_HORIZONTAL, G4_FAX_UNCOMPRESSED, G4_FAX_VERTICAL = 3 /* 0: 3 to the left */ };

struct g4_fax {
    int coding, is_2d;
    int has_no_eol; /* Group 3 without ends of lines */
    /* The data. Bits behind their end are 0. */
    const uint8_t *start, *p, *end;
    uint64_t bits;
    int n_bits;
    /* A row. Positions are a0 of T.4, where the next run begins, and b1, where a run of the row above ends. */
    int64_t w, a0, b1;
    uint32_t *now, *above; /* (cap) lengths of the runs of this row, and of the one above */
    size_t n, at_above, cap;
    uint32_t run;            /* what words have added to the next run so far */
    int has_eol;             /* an end of line was met, of which the last bit is still there */
    int is_over, is_damaged; /* bits behind the end of the data were asked for; a word that is none was met before */
    const char *wrong;
    g4_pace pace;
    uint16_t white[1 << G4_FAX_WHITE_BITS], black[1 << G4_FAX_BLACK_BITS], mode[1 << G4_FAX_MODE_BITS];
};

/* ---- Words ----------------------------------------------------------------------------------- */

/* Each with a bit 1 in front of it: of lengths 0 to 63, then of 64 to 1728 in steps of 64. */
static const uint16_t g4_fax_white[91] = {
    0x135, 0x47,  0x17,  0x18,  0x1b,  0x1c,  0x1e,  0x1f,  0x33,  0x34,  0x27,  0x28,  0x48,  0x43,  0x74,  0x75,
    0x6a,  0x6b,  0xa7,  0x8c,  0x88,  0x97,  0x83,  0x84,  0xa8,  0xab,  0x93,  0xa4,  0x98,  0x102, 0x103, 0x11a,
    0x11b, 0x112, 0x113, 0x114, 0x115, 0x116, 0x117, 0x128, 0x129, 0x12a, 0x12b, 0x12c, 0x12d, 0x104, 0x105, 0x10a,
    0x10b, 0x152, 0x153, 0x154, 0x155, 0x124, 0x125, 0x158, 0x159, 0x15a, 0x15b, 0x14a, 0x14b, 0x132, 0x133, 0x134,
    0x3b,  0x32,  0x57,  0xb7,  0x136, 0x137, 0x164, 0x165, 0x168, 0x167, 0x2cc, 0x2cd, 0x2d2, 0x2d3, 0x2d4, 0x2d5,
    0x2d6, 0x2d7, 0x2d8, 0x2d9, 0x2da, 0x2db, 0x298, 0x299, 0x29a, 0x58,  0x29b,
};
static const uint16_t g4_fax_black[91] = {
    0x437,  0xa,    0x7,    0x6,    0xb,    0x13,   0x12,   0x23,   0x45,   0x44,   0x84,   0x85,   0x87,
    0x104,  0x107,  0x218,  0x417,  0x418,  0x408,  0x867,  0x868,  0x86c,  0x837,  0x828,  0x817,  0x818,
    0x10ca, 0x10cb, 0x10cc, 0x10cd, 0x1068, 0x1069, 0x106a, 0x106b, 0x10d2, 0x10d3, 0x10d4, 0x10d5, 0x10d6,
    0x10d7, 0x106c, 0x106d, 0x10da, 0x10db, 0x1054, 0x1055, 0x1056, 0x1057, 0x1064, 0x1065, 0x1052, 0x1053,
    0x1024, 0x1037, 0x1038, 0x1027, 0x1028, 0x1058, 0x1059, 0x102b, 0x102c, 0x105a, 0x1066, 0x1067, 0x40f,
    0x10c8, 0x10c9, 0x105b, 0x1033, 0x1034, 0x1035, 0x206c, 0x206d, 0x204a, 0x204b, 0x204c, 0x204d, 0x2072,
    0x2073, 0x2074, 0x2075, 0x2076, 0x2077, 0x2052, 0x2053, 0x2054, 0x2055, 0x205a, 0x205b, 0x2064, 0x2065,
};
static const uint16_t g4_fax_long[13] = {
    0x808, 0x80c, 0x80d, 0x1012, 0x1013, 0x1014, 0x1015, 0x1016, 0x1017, 0x101c, 0x101d, 0x101e, 0x101f,
};

/* Of how the next run is given, as the enumerators above have it. */
static const uint8_t g4_fax_modes[][2] = { { 0x82, 0 },
                                           { 0x42, 1 },
                                           { 0xa, 2 },
                                           { 3, 3 },
                                           { 0xb, 4 },
                                           { 0x43, 5 },
                                           { 0x83, 6 },
                                           { 0x11, G4_FAX_PASS },
                                           { 9, G4_FAX_HORIZONTAL },
                                           { 0x81, G4_FAX_UNCOMPRESSED } };

/* Note in a table of all numbers of so many bits what the word that they begin with says, and its bits. */
static void g4_fax_note(uint16_t *table, int table_bits, uint32_t word, uint32_t says)
{
    int n = 0;
    while (word >> (n + 1)) n++;
    const uint32_t first = (word & ((1u << n) - 1)) << (table_bits - n);
    for (uint32_t i = 0; i < 1u << (table_bits - n); i++) table[first + i] = (uint16_t)((uint32_t)n << 12 | says);
}

static void g4_fax_note_runs(uint16_t *table, int table_bits, const uint16_t words[91])
{
    for (uint32_t i = 0; i < 1u << table_bits; i++) table[i] = G4_FAX_BAD;
    for (uint32_t i = 0; i < 91; i++) g4_fax_note(table, table_bits, words[i], i < 64 ? i : (i - 63) * 64);
    for (uint32_t i = 0; i < 13; i++) g4_fax_note(table, table_bits, g4_fax_long[i], 1792 + i * 64);
    g4_fax_note(table, table_bits, 1u << G4_FAX_ZEROS, G4_FAX_EOL);
}

static void g4_fax_note_all(g4_fax *f)
{
    g4_fax_note_runs(f->white, G4_FAX_WHITE_BITS, g4_fax_white);
    g4_fax_note_runs(f->black, G4_FAX_BLACK_BITS, g4_fax_black);
    for (size_t i = 0; i < sizeof f->mode / sizeof *f->mode; i++) f->mode[i] = G4_FAX_BAD;
    for (size_t i = 0; i < sizeof g4_fax_modes / sizeof *g4_fax_modes; i++)
        g4_fax_note(f->mode, G4_FAX_MODE_BITS, g4_fax_modes[i][0], g4_fax_modes[i][1]);
    g4_fax_note(f->mode, G4_FAX_MODE_BITS, 1u << G4_FAX_MODE_BITS, G4_FAX_EOL);
}

static const char g4_fax_short[] = "truncated", g4_fax_ended[] = "no rows",
                  g4_fax_full[] = "a row has more runs than pixels";

/* The next n bits, which stay; -1: there is none left. */
static int g4_fax_look(g4_fax *f, int n)
{
    if (f->n_bits < n) {
        for (; f->n_bits <= 48 && f->p < f->end; f->n_bits += 8) f->bits = f->bits << 8 | *f->p++;
        if (f->n_bits == 0) return -1;
        if (f->n_bits < n) {
            f->is_over = 1;
            f->bits <<= n - f->n_bits;
            f->n_bits = n;
        }
    }
    return (int)(f->bits >> (f->n_bits - n) & ((1u << n) - 1));
}

/* What the next word says, which is taken; -1: the data have ended. */
static int g4_fax_word(g4_fax *f, const uint16_t *table, int table_bits)
{
    const int next = g4_fax_look(f, table_bits);
    if (g4_pace_ends(&f->pace, 8)) f->wrong = "halted";
    if (next < 0) f->wrong = g4_fax_short;
    if (f->wrong) return -1;
    f->n_bits -= table[next] >> 12;
    if ((table[next] & 4095) == G4_FAX_BAD && !f->is_over) f->is_damaged = 1;
    return table[next] & 4095;
}

/* ---- Rows of runs ---------------------------------------------------------------------------- */

/* The next run is over, `length` longer than its words have said so far. */
static void g4_fax_put(g4_fax *f, int64_t length)
{
    if (f->n == f->cap) {
        f->wrong = g4_fax_full;
        return;
    }
    f->now[f->n++] = f->run + (uint32_t)length;
    f->a0 += length;
    f->run = 0;
}

/* Words up to the end of a run. 0, or the row ends here. */
static int g4_fax_run(g4_fax *f, int is_black)
{
    for (;;) {
        const int length =
            g4_fax_word(f, is_black ? f->black : f->white, is_black ? G4_FAX_BLACK_BITS : G4_FAX_WHITE_BITS);
        if (length < 0 || length == G4_FAX_BAD) return 1;
        if (length == G4_FAX_EOL) {
            f->has_eol = 1;
            return 1;
        }
        if (length < 64) {
            g4_fax_put(f, length);
            return f->wrong != NULL;
        }
        if (f->run > G4_FAX_RUN_MAX) continue;
        f->a0 += length;
        f->run += (uint32_t)length;
    }
}

static void g4_fax_row_of_lengths(g4_fax *f)
{
    while (!g4_fax_run(f, 0) && f->a0 < f->w && !g4_fax_run(f, 1) && f->a0 < f->w)
        if (f->now[f->n - 1] == 0 && f->now[f->n - 2] == 0) f->n -= 2;
}

/* The length of the next run above. Behind the last one stands what the rows before have left there, as in libtiff, so
 * that damaged rows are the same. */
static uint32_t g4_fax_next_above(g4_fax *f)
{
    if (f->at_above < f->cap) return f->above[f->at_above++];
    f->wrong = g4_fax_full;
    return 0;
}

/* Move b1 to the right of a0, where a run above of the other colour than the next one begins. */
static void g4_fax_find_above(g4_fax *f)
{
    while (f->n > 0 && f->b1 <= f->a0 && f->b1 < f->w && !f->wrong) {
        f->b1 += g4_fax_next_above(f);
        f->b1 += g4_fax_next_above(f);
    }
}

/* A run that ends `right` of b1. 0, or the row ends here. */
static int g4_fax_vertical(g4_fax *f, int right)
{
    g4_fax_find_above(f);
    if (f->b1 + right < f->a0 || f->at_above == 0) {
        f->is_damaged = 1;
        return 1;
    }
    g4_fax_put(f, f->b1 - f->a0 + right);
    if (right >= 0)
        f->b1 += g4_fax_next_above(f);
    else
        f->b1 -= f->above[--f->at_above];
    return f->wrong != NULL;
}

static void g4_fax_pass(g4_fax *f)
{
    g4_fax_find_above(f);
    f->b1 += g4_fax_next_above(f);
    f->run += (uint32_t)(f->b1 - f->a0);
    f->a0 = f->b1;
    f->b1 += g4_fax_next_above(f);
}

/* A row that ends before its time by an end of line, which is 4 bits longer than a word, or by what is not read: the
 * next run goes up to its end. */
static void g4_fax_end_early(g4_fax *f, int is_eol)
{
    const int64_t a0 = f->a0;
    const uint32_t run = f->run;
    f->run = 0;
    if (!is_eol && !f->is_over) f->is_damaged = 1;
    g4_fax_put(f, f->w - a0);
    f->a0 = a0;
    f->run = run;
    if (!is_eol || f->wrong) return;
    if (g4_fax_look(f, G4_FAX_ZEROS - G4_FAX_MODE_BITS) < 0) {
        f->wrong = g4_fax_short;
        return;
    }
    f->n_bits -= G4_FAX_ZEROS - G4_FAX_MODE_BITS;
    f->has_eol = 1;
}

static void g4_fax_row_by_above(g4_fax *f)
{
    f->at_above = 0;
    f->b1 = g4_fax_next_above(f);
    while (f->a0 < f->w) {
        const int mode = g4_fax_word(f, f->mode, G4_FAX_MODE_BITS);
        if (mode < 0 || mode == G4_FAX_BAD) return;
        if (mode == G4_FAX_UNCOMPRESSED || mode == G4_FAX_EOL) {
            g4_fax_end_early(f, mode == G4_FAX_EOL);
            return;
        }
        if (mode == G4_FAX_PASS) {
            g4_fax_pass(f);
            if (f->wrong) return;
        } else if (mode == G4_FAX_HORIZONTAL) {
            const int is_black = f->n & 1;
            if (g4_fax_run(f, is_black) || g4_fax_run(f, !is_black)) return;
            g4_fax_find_above(f);
            if (f->wrong) return;
        } else if (g4_fax_vertical(f, mode - G4_FAX_VERTICAL)) {
            return;
        }
    }
}

/* Make a row as long as it must be: runs that are too many are taken back, what is missing is white. */
static void g4_fax_settle(g4_fax *f)
{
    if (f->run) g4_fax_put(f, 0);
    if (f->a0 != f->w && !f->is_over) f->is_damaged = 1;
    while (f->a0 > f->w && f->n > 0) f->a0 -= f->now[--f->n];
    if (f->a0 >= f->w) return;
    if (f->n & 1) g4_fax_put(f, 0);
    if (!f->wrong) g4_fax_put(f, f->w - f->a0);
}

/* ---- Rows of bits ---------------------------------------------------------------------------- */

/* Set n bits, from bit x on. */
static void g4_fax_blacken(uint8_t *row, size_t x, size_t n)
{
    const size_t first = x / 8, last = (x + n - 1) / 8;
    const uint32_t head = 255u >> (x & 7), tail = 255u << (7 - ((x + n - 1) & 7));
    if (first == last) {
        row[first] |= (uint8_t)(head & tail);
        return;
    }
    row[first] |= (uint8_t)head;
    memset(row + first + 1, 255, last - first - 1);
    row[last] |= (uint8_t)tail;
}

/* The row's bits, 1 for black. Its runs are cut to its width, since the next one looks at them. */
static void g4_fax_draw(g4_fax *f, uint8_t *row)
{
    const size_t w = (size_t)f->w;
    size_t x = 0;
    memset(row, 0, (w + 7) / 8);
    for (size_t i = 0; i < f->n; i++) {
        if (f->now[i] > w - x) f->now[i] = (uint32_t)(w - x);
        if ((i & 1) && f->now[i] > 0) g4_fax_blacken(row, x, f->now[i]);
        x += f->now[i];
    }
    if (f->n < f->cap) f->now[f->n] = 0; /* what ends at the end of the row may be passed over */
}

/* ---- Strips ---------------------------------------------------------------------------------- */

/* Pass the next end of line, and what stands before it. Nonzero: there is none. */
static int g4_fax_pass_eol(g4_fax *f)
{
    int next = 0;
    for (; !f->has_eol && (next = g4_fax_look(f, G4_FAX_ZEROS)) != 0; f->n_bits--)
        if (next < 0 || g4_pace_ends(&f->pace, 1)) return 1;
    while ((next = g4_fax_look(f, 1)) == 0) f->n_bits--;
    if (next < 0) return 1;
    f->n_bits--;
    f->has_eol = 0;
    return 0;
}

static void g4_fax_restart(g4_fax *f)
{
    f->p = f->start;
    f->n_bits = 0;
    f->is_over = 0;
    f->has_eol = 0;
}

/* What stands before a row of Group 3. Is the row given by the one above? */
static int g4_fax_begin_row(g4_fax *f, int is_first)
{
    if (!f->has_no_eol && g4_fax_pass_eol(f)) {
        if (!is_first) f->wrong = g4_fax_short;
        f->has_no_eol = 1;
        g4_fax_restart(f);
    }
    if (!f->is_2d || f->wrong) return 0;
    const int tag = g4_fax_look(f, 1);
    if (tag < 0) f->wrong = g4_fax_short;
    f->n_bits--;
    return tag == 0;
}

/* The bits up to a whole byte, or two, of the data. */
static void g4_fax_align(g4_fax *f)
{
    const ptrdiff_t ahead = f->n_bits, read = 8 * (f->p - f->start) - ahead, unit = f->coding == G4_FAX_WORDS ? 16 : 8;
    const ptrdiff_t rest = (unit - read % unit) % unit;
    if (rest <= ahead) {
        f->n_bits -= (int)rest;
    } else { /* a second byte that is not read yet */
        f->n_bits = 0;
        if (f->p < f->end) f->p++;
    }
}

/* Have the data ended because damage has swallowed some of them, or by the two ends of lines of Group 4? */
static int g4_fax_is_lost(const g4_fax *f)
{
    if (f->coding != G4_FAX_GROUP_3 && f->coding != G4_FAX_GROUP_4) return 0;
    return f->wrong == g4_fax_ended || (f->wrong == g4_fax_short && f->is_damaged);
}

static void g4_fax_row(g4_fax *f, int is_first, uint8_t *row)
{
    f->a0 = 0;
    f->run = 0;
    f->n = 0;
    const int is_group_3 = f->coding == G4_FAX_GROUP_3;
    const int is_by_above = is_group_3 ? g4_fax_begin_row(f, is_first) : f->coding == G4_FAX_GROUP_4;
    if (f->wrong) return;
    if (is_by_above)
        g4_fax_row_by_above(f);
    else
        g4_fax_row_of_lengths(f);
    if (f->coding == G4_FAX_GROUP_4 && f->has_eol) f->wrong = is_first || f->is_over ? g4_fax_short : g4_fax_ended;
    const char *const wrong = f->wrong;
    if (g4_fax_is_lost(f)) f->wrong = NULL;
    if (!f->wrong) g4_fax_settle(f);
    if (f->wrong) return;
    g4_fax_draw(f, row);
    f->wrong = wrong;
    if (f->coding == G4_FAX_BYTES || f->coding == G4_FAX_WORDS) g4_fax_align(f);
    uint32_t *const now = f->now;
    f->now = f->above;
    f->above = now;
}

const char *g4_fax_decode(g4_fax *f, const uint8_t *data, size_t size, uint32_t rows, uint8_t *out)
{
    f->start = data;
    f->end = data + size;
    f->wrong = NULL;
    g4_fax_restart(f);
    f->is_damaged = 0;
    f->above[0] = (uint32_t)f->w; /* before the first row stands a white one */
    f->above[1] = 0;
    const size_t stride = ((size_t)f->w + 7) / 8;
    uint32_t y = 0;
    for (; y < rows && !f->wrong; y++) {
        g4_fax_row(f, y == 0, out + stride * y);
        if (g4_pace_ends(&f->pace, stride / 8 + 16)) f->wrong = "halted";
    }
    if (!g4_fax_is_lost(f)) return f->wrong;
    memset(out + stride * y, 0, stride * (rows - y));
    return NULL;
}

g4_fax *g4_fax_open(const g4_media_limits *m, int coding, int is_2d, uint32_t w, size_t size)
{
    g4_fax *f = g4_alloc(m->a, 1, sizeof *f);
    if (!f) return NULL;
    memset(f, 0, sizeof *f);
    f->coding = coding;
    f->is_2d = is_2d;
    f->w = w;
    f->pace.halt = m->halt;
    /* libtiff has as many; each takes a bit at least, but for those that end a row */
    const uint64_t cap = (((uint64_t)w + 32) / 32 * 32) * (coding == G4_FAX_GROUP_4 || is_2d ? 2 : 1);
    f->cap = (size_t)(cap < 8 * (uint64_t)size + 64 ? cap : 8 * (uint64_t)size + 64);
    f->now = g4_alloc(m->a, f->cap, sizeof *f->now);
    f->above = g4_alloc(m->a, f->cap, sizeof *f->above);
    if (!f->now || !f->above) {
        g4_fax_close(m, f);
        return NULL;
    }
    memset(f->now, 0, f->cap * sizeof *f->now);
    memset(f->above, 0, f->cap * sizeof *f->above);
    g4_fax_note_all(f);
    return f;
}

void g4_fax_close(const g4_media_limits *m, g4_fax *f)
{
    if (!f) return;
    g4_free(m->a, f->now);
    g4_free(m->a, f->above);
    g4_free(m->a, f);
}
