/* vp8l.c - lossless WebP (RFC 9649, section 3): pixels as prefix codes and copies, of which a few transforms make the
 * picture. Codes, transforms and the choice among codes are small pictures of the same kind. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <stdlib.h>

enum { G4_VP8L_GREEN, G4_VP8L_RED, G4_VP8L_BLUE, G4_VP8L_ALPHA, G4_VP8L_FAR, G4_VP8L_CODES }; /* of a group */
enum { G4_VP8L_PREDICT, G4_VP8L_CROSS, G4_VP8L_SUBTRACT, G4_VP8L_INDEX, G4_VP8L_TRANSFORMS };
#define G4_VP8L_LENGTHS 24 /* symbols of the first code that are lengths of copies; caches come behind them */
#define G4_VP8L_CACHE_BITS 11
#define G4_VP8L_SYMBOLS (256 + G4_VP8L_LENGTHS + (1 << G4_VP8L_CACHE_BITS))
#define G4_VP8L_FAST 8                                          /* bits of codes that one look-up decodes */
#define G4_VP8L_LONG 15                                         /* bits of the longest code */
#define G4_VP8L_HEAD ((G4_VP8L_LONG + 1) + (1 << G4_VP8L_FAST)) /* numbers of a code before its symbols */
#define G4_VP8L_SLOW 0xffff                                     /* of the look-up: the code is longer */

typedef struct {
    uint32_t *pixels; /* (h, w); NULL: there is none */
    uint32_t w, h, bits;
} g4_vp8l_part; /* a pixel for each square of the picture, of 1 << bits pixels each way */

typedef struct {
    const g4_media_limits *m;
    const uint8_t *p, *end;
    uint64_t bits;
    uint32_t n_bits, n_missing; /* bits that are there; bytes that were asked for behind the end */
    int is_out_of_memory;
    size_t room; /* bytes that codes may take: as many as the pixels, or some */
    g4_pace pace;
    g4_vp8l_part part[G4_VP8L_TRANSFORMS];
} g4_vp8l_stream;

static const char g4_vp8l_short[] = "truncated", g4_vp8l_bad[] = "a prefix code makes no sense";

/* ---- Bits and codes ---------------------------------------------------------------------------- */

static inline void g4_vp8l_fill(g4_vp8l_stream *v) /* 32 bits or more */
{
    if (v->n_bits >= 32) return;
    if (v->end - v->p >= 4) {
        v->bits |= (uint64_t)g4_le32(v->p) << v->n_bits;
        v->p += 4;
        v->n_bits += 32;
        return;
    }
    for (; v->n_bits < 32; v->n_bits += 8) {
        if (v->p == v->end)
            v->n_missing++;
        else
            v->bits |= (uint64_t)*v->p++ << v->n_bits;
    }
}

static inline uint32_t g4_vp8l_take(g4_vp8l_stream *v, uint32_t n) /* up to 32 */
{
    g4_vp8l_fill(v);
    const uint32_t bits = (uint32_t)(v->bits & ((UINT64_C(1) << n) - 1));
    v->bits >>= n;
    v->n_bits -= n;
    return bits;
}

static int g4_vp8l_is_short(const g4_vp8l_stream *v) { return v->n_missing * 8 > v->n_bits; }

/* A code is: how many there are of each length, what begins with the next bits (symbol << 4 | length), and the symbols
 * in order of their codes. That of one symbol has no bits. Returns its numbers; 0: these lengths make none. */
static size_t g4_vp8l_build(const uint8_t *length, uint32_t n, uint16_t *code)
{
    uint16_t offset[G4_VP8L_LONG + 2] = { 0 }, next[G4_VP8L_LONG + 2] = { 0 };
    uint16_t *const count = code, *const fast = code + G4_VP8L_LONG + 1, *const symbols = code + G4_VP8L_HEAD;
    memset(count, 0, (G4_VP8L_LONG + 1) * sizeof *count);
    for (uint32_t i = 0; i < n; i++) count[length[i]]++;
    const uint32_t used = n - count[0];
    count[0] = 0;
    int left = 1; /* codes of a length that no shorter one begins */
    for (int l = 1; l <= G4_VP8L_LONG; l++) {
        left = 2 * left - count[l];
        if (left < 0) return 0;
        offset[l + 1] = (uint16_t)(offset[l] + count[l]);
        next[l + 1] = (uint16_t)((next[l] + count[l]) << 1);
    }
    if (used == 0 || (left > 0 && used > 1)) return 0;
    for (int i = 0; i < 1 << G4_VP8L_FAST; i++) fast[i] = G4_VP8L_SLOW;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t l = used == 1 && length[i] ? 0 : length[i];
        uint32_t turned = 0; /* the first bit is the highest of a code, and the lowest of the stream */
        if (!length[i]) continue;
        symbols[offset[l]++] = (uint16_t)i;
        for (uint32_t k = 0; k < l; k++) turned |= next[l] & 1u << k ? 1u << (l - 1 - k) : 0;
        next[l]++;
        for (uint32_t k = turned; l <= G4_VP8L_FAST && k < 1u << G4_VP8L_FAST; k += 1u << l)
            fast[k] = (uint16_t)(i << 4 | l);
    }
    return G4_VP8L_HEAD + used;
}

static inline uint32_t g4_vp8l_symbol(g4_vp8l_stream *v, const uint16_t *code)
{
    g4_vp8l_fill(v);
    const uint32_t entry = code[G4_VP8L_LONG + 1 + (v->bits & ((1 << G4_VP8L_FAST) - 1))];
    if (entry != G4_VP8L_SLOW) {
        v->bits >>= entry & 15;
        v->n_bits -= entry & 15;
        return entry >> 4;
    }
    uint32_t word = 0, first = 0, index = 0; /* first: code of this length; index: of its symbol */
    for (uint32_t l = 1; l <= G4_VP8L_LONG; l++) {
        word |= (uint32_t)(v->bits >> (l - 1) & 1);
        const uint32_t count = code[l];
        if (word < first + count) {
            v->bits >>= l;
            v->n_bits -= l;
            return code[G4_VP8L_HEAD + index + (word - first)];
        }
        index += count;
        first = (first + count) << 1;
        word <<= 1;
    }
    return 0; /* codes are complete */
}

/* The lengths of a code of n symbols, which are coded themselves. Nonzero: they make no sense. */
static int g4_vp8l_lengths(g4_vp8l_stream *v, uint8_t *length, uint32_t n)
{
    static const uint8_t order[19] = { 17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
    uint8_t first[19] = { 0 };
    uint16_t code[G4_VP8L_HEAD + 19];
    const uint32_t n_first = 4 + g4_vp8l_take(v, 4);
    for (uint32_t i = 0; i < n_first; i++) first[order[i]] = (uint8_t)g4_vp8l_take(v, 3);
    if (!g4_vp8l_build(first, 19, code)) return 1;
    const uint32_t is_less = g4_vp8l_take(v, 1);
    uint32_t left = is_less ? 2 + g4_vp8l_take(v, 2 + 2 * g4_vp8l_take(v, 3)) : n;
    uint8_t before = 8;
    for (uint32_t at = 0; at < n && left > 0; left--) {
        const uint32_t symbol = g4_vp8l_symbol(v, code);
        if (symbol < 16) {
            length[at++] = (uint8_t)symbol;
            if (symbol) before = (uint8_t)symbol;
            continue;
        }
        const uint32_t times = symbol == 16   ? 3 + g4_vp8l_take(v, 2)
                               : symbol == 17 ? 3 + g4_vp8l_take(v, 3)
                                              : 11 + g4_vp8l_take(v, 7);
        if (times > n - at) return 1;
        memset(length + at, symbol == 16 ? before : 0, times);
        at += times;
    }
    return 0;
}

/* The next code, of n symbols. Returns its numbers; 0: it makes no sense. */
static size_t g4_vp8l_code(g4_vp8l_stream *v, uint32_t n, uint16_t *code)
{
    uint8_t length[G4_VP8L_SYMBOLS] = { 0 };
    if (g4_vp8l_take(v, 1)) { /* one symbol, or two */
        const uint32_t two = g4_vp8l_take(v, 1), wide = g4_vp8l_take(v, 1);
        const uint32_t a = g4_vp8l_take(v, wide ? 8 : 1), b = two ? g4_vp8l_take(v, 8) : a;
        if (a >= n || b >= n) return 0;
        length[a] = length[b] = 1;
    } else if (g4_vp8l_lengths(v, length, n)) {
        return 0;
    }
    return g4_vp8l_build(length, n, code);
}

/* All codes of a picture: the places of those of each group, and the numbers. */
typedef struct {
    uint32_t (*start)[G4_VP8L_CODES];
    uint16_t *numbers; /* (cap), n of them there */
    size_t n, cap;
} g4_vp8l_codes;

static const char *g4_vp8l_read_codes(g4_vp8l_stream *v, g4_vp8l_codes *c, uint32_t n_groups, uint32_t cache)
{
    c->start = g4_alloc(v->m->a, n_groups, sizeof *c->start);
    v->is_out_of_memory = !c->start;
    for (uint32_t i = 0; i < n_groups * G4_VP8L_CODES && !v->is_out_of_memory; i++) {
        const uint32_t kind = i % G4_VP8L_CODES;
        const uint32_t n = kind == G4_VP8L_GREEN ? 256 + G4_VP8L_LENGTHS + cache : kind == G4_VP8L_FAR ? 40 : 256;
        if (c->cap - c->n < G4_VP8L_HEAD + n) {
            const size_t cap = 2 * c->cap + 8 * G4_VP8L_SYMBOLS;
            if (cap * sizeof *c->numbers > v->room) return "its codes take more than its pixels";
            uint16_t *more = g4_grow(v->m->a, c->numbers, c->n * sizeof *more, cap, sizeof *more, v->m->halt);
            v->is_out_of_memory = !more;
            if (!more) break;
            c->numbers = more;
            c->cap = cap;
        }
        const size_t used = g4_vp8l_code(v, n, c->numbers + c->n);
        if (g4_vp8l_is_short(v)) return g4_vp8l_short;
        if (used == 0) return g4_vp8l_bad;
        c->start[i / G4_VP8L_CODES][kind] = (uint32_t)c->n;
        c->n += used;
        if (g4_pace_ends(&v->pace, 2 * n)) return "halted";
    }
    return v->is_out_of_memory ? g4_vp8l_bad : NULL;
}

/* ---- Pixels ------------------------------------------------------------------------------------ */

/* A length or a distance by its symbol: the larger, the more of its bits follow. */
static uint32_t g4_vp8l_number(g4_vp8l_stream *v, uint32_t symbol)
{
    if (symbol < 4) return symbol + 1;
    const uint32_t n = (symbol - 2) >> 1;
    return ((2 + (symbol & 1)) << n) + g4_vp8l_take(v, n) + 1;
}

/* The first numbers are of pixels nearby: so many columns to the left, so many rows above. */
static size_t g4_vp8l_distance(uint32_t number, size_t w)
{
    static const int8_t near[120][2] = {
        { 0, 1 },  { 1, 0 },  { 1, 1 },  { -1, 1 }, { 0, 2 },  { 2, 0 },  { 1, 2 },  { -1, 2 }, { 2, 1 },  { -2, 1 },
        { 2, 2 },  { -2, 2 }, { 0, 3 },  { 3, 0 },  { 1, 3 },  { -1, 3 }, { 3, 1 },  { -3, 1 }, { 2, 3 },  { -2, 3 },
        { 3, 2 },  { -3, 2 }, { 0, 4 },  { 4, 0 },  { 1, 4 },  { -1, 4 }, { 4, 1 },  { -4, 1 }, { 3, 3 },  { -3, 3 },
        { 2, 4 },  { -2, 4 }, { 4, 2 },  { -4, 2 }, { 0, 5 },  { 3, 4 },  { -3, 4 }, { 4, 3 },  { -4, 3 }, { 5, 0 },
        { 1, 5 },  { -1, 5 }, { 5, 1 },  { -5, 1 }, { 2, 5 },  { -2, 5 }, { 5, 2 },  { -5, 2 }, { 4, 4 },  { -4, 4 },
        { 3, 5 },  { -3, 5 }, { 5, 3 },  { -5, 3 }, { 0, 6 },  { 6, 0 },  { 1, 6 },  { -1, 6 }, { 6, 1 },  { -6, 1 },
        { 2, 6 },  { -2, 6 }, { 6, 2 },  { -6, 2 }, { 4, 5 },  { -4, 5 }, { 5, 4 },  { -5, 4 }, { 3, 6 },  { -3, 6 },
        { 6, 3 },  { -6, 3 }, { 0, 7 },  { 7, 0 },  { 1, 7 },  { -1, 7 }, { 5, 5 },  { -5, 5 }, { 7, 1 },  { -7, 1 },
        { 4, 6 },  { -4, 6 }, { 6, 4 },  { -6, 4 }, { 2, 7 },  { -2, 7 }, { 7, 2 },  { -7, 2 }, { 3, 7 },  { -3, 7 },
        { 7, 3 },  { -7, 3 }, { 5, 6 },  { -5, 6 }, { 6, 5 },  { -6, 5 }, { 8, 0 },  { 4, 7 },  { -4, 7 }, { 7, 4 },
        { -7, 4 }, { 8, 1 },  { 8, 2 },  { 6, 6 },  { -6, 6 }, { 8, 3 },  { 5, 7 },  { -5, 7 }, { 7, 5 },  { -7, 5 },
        { 8, 4 },  { 6, 7 },  { -6, 7 }, { 7, 6 },  { -7, 6 }, { 8, 5 },  { 7, 7 },  { -7, 7 }, { 8, 6 },  { 8, 7 }
    };
    if (number > 120) return number - 120;
    const ptrdiff_t back = near[number - 1][0] + near[number - 1][1] * (ptrdiff_t)w;
    return back < 1 ? 1 : (size_t)back;
}

/* The pixels of a picture by codes that are known. groups: which of them hold where. */
static const char *g4_vp8l_pixels(g4_vp8l_stream *v, const g4_vp8l_codes *c, const g4_vp8l_part *groups,
                                  uint32_t cache_bits, uint32_t w, uint32_t h, uint32_t *out)
{
    uint32_t cache[1 << G4_VP8L_CACHE_BITS] = { 0 };
    const uint32_t *start = c->start[0];
    const size_t size = (size_t)w * h;
    const uint32_t mask = groups->pixels ? (1u << groups->bits) - 1 : UINT32_MAX;
    size_t at = 0, cached = 0; /* pixels that the cache has seen */
    while (at < size) {
        const uint32_t x = (uint32_t)(at % w), y = (uint32_t)(at / w);
        const size_t end = g4_min_size(size, at + g4_min_size(w - x, (size_t)mask - (x & mask) + 1));
        if (groups->pixels)
            start =
                c->start[groups->pixels[(size_t)(y >> groups->bits) * groups->w + (x >> groups->bits)] >> 8 & 0xffff];
        while (at < end) {
            const uint32_t symbol = g4_vp8l_symbol(v, c->numbers + start[G4_VP8L_GREEN]);
            size_t n = 1;
            if (symbol < 256) {
                const uint32_t red = g4_vp8l_symbol(v, c->numbers + start[G4_VP8L_RED]);
                const uint32_t blue = g4_vp8l_symbol(v, c->numbers + start[G4_VP8L_BLUE]);
                out[at] = g4_vp8l_symbol(v, c->numbers + start[G4_VP8L_ALPHA]) << 24 | red << 16 | symbol << 8 | blue;
            } else if (symbol < 256 + G4_VP8L_LENGTHS) {
                n = g4_vp8l_number(v, symbol - 256);
                const uint32_t far = g4_vp8l_number(v, g4_vp8l_symbol(v, c->numbers + start[G4_VP8L_FAR]));
                const size_t back = g4_vp8l_distance(far, w);
                if (back > at || n > size - at) return g4_vp8l_is_short(v) ? g4_vp8l_short : "a copy from elsewhere";
                for (size_t i = 0; i < n; i++) out[at + i] = out[at + i - back];
            }
            if (cache_bits) { /* of the pixels before this one, which comes from it or will be in it */
                for (; cached < at; cached++) cache[(out[cached] * 0x1e35a7bdu) >> (32 - cache_bits)] = out[cached];
                if (symbol >= 256 + G4_VP8L_LENGTHS) out[at] = cache[symbol - 256 - G4_VP8L_LENGTHS];
            }
            at += n;
            if (at < size && g4_vp8l_is_short(v)) return g4_vp8l_short; /* of the last one, bits may be missing */
            if (g4_pace_ends(&v->pace, 16 + n)) return "halted";
        }
    }
    return NULL;
}

static const char *g4_vp8l_part_read(g4_vp8l_stream *v, uint32_t w, uint32_t h, uint32_t bits, g4_vp8l_part *out);

/* A picture of w x h: its cache, which codes hold where (of the whole one only), the codes, the pixels. */
static const char *g4_vp8l_image(g4_vp8l_stream *v, uint32_t w, uint32_t h, int is_whole, uint32_t *out)
{
    g4_vp8l_part groups = { NULL, 0, 0, 0 };
    g4_vp8l_codes codes = { NULL, NULL, 0, 0 };
    uint32_t cache_bits = g4_vp8l_take(v, 1) ? g4_vp8l_take(v, 4) : 0, n_groups = 1;
    if (cache_bits > G4_VP8L_CACHE_BITS) return "a cache of too many colours";
    const char *wrong = NULL;
    if (is_whole && g4_vp8l_take(v, 1)) {
        const uint32_t bits = 2 + g4_vp8l_take(v, 3);
        wrong = g4_vp8l_part_read(v, w, h, bits, &groups);
        for (size_t i = 0; !wrong && i < (size_t)groups.w * groups.h; i++) {
            const uint32_t group = groups.pixels[i] >> 8 & 0xffff;
            if (group >= n_groups) n_groups = group + 1;
        }
    }
    if (!wrong) wrong = g4_vp8l_read_codes(v, &codes, n_groups, cache_bits ? 1u << cache_bits : 0);
    if (!wrong) wrong = g4_vp8l_pixels(v, &codes, &groups, cache_bits, w, h, out);
    g4_free(v->m->a, groups.pixels);
    g4_free(v->m->a, codes.start);
    g4_free(v->m->a, codes.numbers);
    return wrong;
}

static const char *g4_vp8l_part_read(g4_vp8l_stream *v, uint32_t w, uint32_t h, uint32_t bits, g4_vp8l_part *out)
{
    *out = (g4_vp8l_part) { NULL, (w + (1u << bits) - 1) >> bits, (h + (1u << bits) - 1) >> bits, bits };
    out->pixels = g4_alloc(v->m->a, (size_t)out->w * out->h, sizeof *out->pixels);
    v->is_out_of_memory = !out->pixels;
    return out->pixels ? g4_vp8l_image(v, out->w, out->h, 0, out->pixels) : g4_vp8l_short;
}

/* ---- Transforms -------------------------------------------------------------------------------- */

static inline uint32_t g4_vp8l_sum(uint32_t a, uint32_t b) /* of each byte */
{
    const uint32_t high = (a & 0xff00ff00u) + (b & 0xff00ff00u), low = (a & 0x00ff00ffu) + (b & 0x00ff00ffu);
    return (high & 0xff00ff00u) | (low & 0x00ff00ffu);
}

static inline uint32_t g4_vp8l_mean(uint32_t a, uint32_t b) { return (((a ^ b) & 0xfefefefeu) >> 1) + (a & b); }

static inline int g4_vp8l_byte(uint32_t v, int i) { return (int)(v >> 8 * i & 255); }

/* left or above, whichever is closer to left + above - corner */
static uint32_t g4_vp8l_select(uint32_t left, uint32_t above, uint32_t corner)
{
    int off = 0;
    for (int i = 0; i < 4; i++)
        off += abs(g4_vp8l_byte(above, i) - g4_vp8l_byte(corner, i)) -
               abs(g4_vp8l_byte(left, i) - g4_vp8l_byte(corner, i));
    return off < 0 ? left : above;
}

/* a + b - c, or a + half of a - c. */
static uint32_t g4_vp8l_clamped(uint32_t a, uint32_t b, uint32_t c, int is_half)
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        const int x = g4_vp8l_byte(a, i), z = g4_vp8l_byte(c, i);
        v |= (uint32_t)g4_clamp_u8(is_half ? x + (x - z) / 2 : x + g4_vp8l_byte(b, i) - z) << 8 * i;
    }
    return v;
}

static inline uint32_t g4_vp8l_guess(uint32_t mode, uint32_t left, const uint32_t *up) /* up: the pixel above */
{
    switch (mode) {
    case 1: return left;
    case 2: return up[0];
    case 3: return up[1];
    case 4: return up[-1];
    case 5: return g4_vp8l_mean(g4_vp8l_mean(left, up[1]), up[0]);
    case 6: return g4_vp8l_mean(left, up[-1]);
    case 7: return g4_vp8l_mean(left, up[0]);
    case 8: return g4_vp8l_mean(up[-1], up[0]);
    case 9: return g4_vp8l_mean(up[0], up[1]);
    case 10: return g4_vp8l_mean(g4_vp8l_mean(left, up[-1]), g4_vp8l_mean(up[0], up[1]));
    case 11: return g4_vp8l_select(left, up[0], up[-1]);
    case 12: return g4_vp8l_clamped(left, up[0], up[-1], 0);
    case 13: return g4_vp8l_clamped(g4_vp8l_mean(left, up[0]), 0, up[-1], 1);
    default: return 0xff000000u;
    }
}

/* Row y of pixels that are differences to a guess. Above the last one and to its right, there is the first of its own
 * row. */
static void g4_vp8l_predict_row(const g4_vp8l_part *part, uint32_t *p, uint32_t w, uint32_t y)
{
    const uint32_t *modes = part->pixels + (size_t)(y >> part->bits) * part->w;
    p[0] = g4_vp8l_sum(p[0], y ? p[-(ptrdiff_t)w] : 0xff000000u);
    for (uint32_t x = 1; x < w; x++) {
        const uint32_t mode = y ? modes[x >> part->bits] >> 8 & 15 : 1;
        p[x] = g4_vp8l_sum(p[x], g4_vp8l_guess(mode, p[x - 1], p + x - (y ? w : 0)));
    }
}

static inline uint32_t g4_vp8l_product(uint32_t a, uint32_t b) /* of bytes with signs, with 5 bits of a fraction */
{
    return (uint32_t)((int8_t)(uint8_t)a * (int8_t)(uint8_t)b >> 5);
}

static void g4_vp8l_cross_row(const g4_vp8l_part *part, uint32_t *p, uint32_t w, uint32_t y)
{
    const uint32_t *factors = part->pixels + (size_t)(y >> part->bits) * part->w;
    for (uint32_t x = 0; x < w; x++) {
        const uint32_t f = factors[x >> part->bits], green = p[x] >> 8;
        const uint32_t red = ((p[x] >> 16) + g4_vp8l_product(f, green)) & 255;
        const uint32_t blue = p[x] + g4_vp8l_product(f >> 8, green) + g4_vp8l_product(f >> 16, red);
        p[x] = (p[x] & 0xff00ff00u) | red << 16 | (blue & 255);
    }
}

static void g4_vp8l_subtract_row(uint32_t *p, uint32_t w)
{
    for (uint32_t x = 0; x < w; x++) {
        const uint32_t green = p[x] >> 8 & 255;
        p[x] = (p[x] & 0xff00ff00u) | (((p[x] & 0x00ff00ffu) + (green << 16 | green)) & 0x00ff00ffu);
    }
}

/* Numbers of colours, several a pixel where they are few, to colours: what is packed stands behind where it goes. */
static void g4_vp8l_index_row(const g4_vp8l_part *part, const uint32_t *packed, uint32_t *p, uint32_t w)
{
    const uint32_t each = 1u << part->bits, wide = 8u >> part->bits;
    for (uint32_t x = 0; x < w; x++) {
        const uint32_t i = packed[x >> part->bits] >> (8 + wide * (x & (each - 1))) & ((1u << wide) - 1);
        p[x] = i < part->w ? part->pixels[i] : 0;
    }
}

/* Undo one. packed: the numbers of colours. */
static const char *g4_vp8l_undo(g4_vp8l_stream *v, int kind, const uint32_t *packed, uint32_t w, uint32_t h,
                                uint32_t *p)
{
    const g4_vp8l_part *part = &v->part[kind];
    const uint32_t packed_w = (w + (1u << part->bits) - 1) >> part->bits;
    for (uint32_t y = 0; y < h; y++, p += w, packed += packed_w) {
        switch (kind) {
        case G4_VP8L_PREDICT: g4_vp8l_predict_row(part, p, w, y); break;
        case G4_VP8L_CROSS: g4_vp8l_cross_row(part, p, w, y); break;
        case G4_VP8L_SUBTRACT: g4_vp8l_subtract_row(p, w); break;
        default: g4_vp8l_index_row(part, packed, p, w);
        }
        if (g4_pace_ends(&v->pace, 4 * (size_t)w)) return "halted";
    }
    return NULL;
}

/* The colours of a palette are differences, and how many a pixel has follows from how many there are. */
static const char *g4_vp8l_palette(g4_vp8l_stream *v, g4_vp8l_part *part)
{
    const uint32_t n = 1 + g4_vp8l_take(v, 8);
    const char *wrong = g4_vp8l_part_read(v, n, 1, 0, part);
    for (uint32_t i = 1; i < n && !wrong; i++) part->pixels[i] = g4_vp8l_sum(part->pixels[i], part->pixels[i - 1]);
    part->bits = n <= 2 ? 3 : n <= 4 ? 2 : n <= 16 ? 1 : 0;
    return wrong;
}

/* The picture: which transforms there are, in the order in which they were done, then the pixels behind them. */
static const char *g4_vp8l_read(g4_vp8l_stream *v, uint32_t w, uint32_t h, uint32_t *out)
{
    int order[G4_VP8L_TRANSFORMS], n = 0, seen = 0;
    uint32_t width = w; /* of the pixels that are coded */
    const char *wrong = NULL;
    while (!wrong && g4_vp8l_take(v, 1)) {
        const int kind = (int)g4_vp8l_take(v, 2);
        g4_vp8l_part *const part = &v->part[kind];
        if (seen >> kind & 1) return "a transform is there twice";
        seen |= 1 << kind;
        order[n++] = kind;
        if (kind == G4_VP8L_INDEX) {
            wrong = g4_vp8l_palette(v, part);
            width = (w + (1u << part->bits) - 1) >> part->bits;
        } else if (kind != G4_VP8L_SUBTRACT) {
            const uint32_t bits = 2 + g4_vp8l_take(v, 3);
            wrong = g4_vp8l_part_read(v, width, h, bits, part);
        }
    }
    uint32_t *const packed = out + ((size_t)w - width) * h;
    if (!wrong) wrong = g4_vp8l_image(v, width, h, 1, packed);
    for (uint32_t *p = packed; n-- > 0 && !wrong;) {
        const int is_index = order[n] == G4_VP8L_INDEX;
        if (is_index) p = out;
        wrong = g4_vp8l_undo(v, order[n], packed, p == out ? w : width, h, p);
    }
    return wrong;
}

g4_status g4_vp8l_decode(const g4_media_limits *m, const uint8_t *data, size_t size, uint32_t w, uint32_t h,
                         uint32_t *out, g4_error *err)
{
    g4_vp8l_stream v = { .m = m, .p = data, .end = data + size, .pace = { m->halt, 0 } };
    v.room = ((size_t)1 << 20) + (size_t)w * h * 3;
    const char *wrong = g4_vp8l_read(&v, w, h, out);
    for (int i = 0; i < G4_VP8L_TRANSFORMS; i++) g4_free(m->a, v.part[i].pixels);
    if (!wrong) return G4_OK;
    const g4_status s = g4_halt_check(m->halt, err);
    if (s) return s;
    return v.is_out_of_memory
               ? g4_fail(err, G4_ERR_MEMORY, "WebP: %u x %u pixels: out of memory", (unsigned)w, (unsigned)h)
               : g4_fail(err, G4_ERR_FORMAT, "WebP: lossless pixels: %s", wrong);
}
