/* xz.c - .xz streams of one block, as libtiff packs pixels: LZMA2 of bytes, or of their differences. What is unpacked
 * is the dictionary: all of it is in memory. No checksum is looked at. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

/* ---- Bits -------------------------------------------------------------------------------------- */

#define G4_XZ_STATES 12   /* what came last: 0 to 6 end with a literal */
#define G4_XZ_PLACES 16   /* of a byte, by its lowest bits */
#define G4_XZ_LITERALS 16 /* kinds of a literal, by its place and the byte before */
#define G4_XZ_EVEN 1024   /* a bit that may be either: half of 2048 */

/* How probable it is that a bit is 0, of 2048. */
typedef struct {
    uint16_t is_long, is_longest, low[G4_XZ_PLACES][8], middle[G4_XZ_PLACES][8], high[256];
} g4_xz_lengths;
typedef struct {
    uint16_t is_match[G4_XZ_STATES][G4_XZ_PLACES], is_again[G4_XZ_STATES], is_again_0[G4_XZ_STATES];
    uint16_t is_again_1[G4_XZ_STATES], is_again_2[G4_XZ_STATES], is_longer[G4_XZ_STATES][G4_XZ_PLACES];
    uint16_t slot[4][64], special[115], low[16];
    g4_xz_lengths length, again;
    uint16_t literal[G4_XZ_LITERALS][0x300];
} g4_xz_odds;

typedef struct {
    const uint8_t *p, *end; /* packed bytes of a chunk */
    uint32_t range, code;
    int is_short; /* more bits were asked for than there are */
    uint8_t *out; /* what is unpacked: at bytes, of which the dictionary begins at first */
    size_t at, first;
    uint32_t lc, lp, pb; /* bits of the byte before, and of places, that tell literals and matches apart */
    uint32_t state, back[4];
    g4_pace *pace;
    g4_xz_odds odds;
} g4_xz_stream;

static inline void g4_xz_refill(g4_xz_stream *z)
{
    if (z->range >> 24) return;
    z->is_short |= z->p == z->end;
    z->code = z->code << 8 | (z->p == z->end ? 0 : *z->p++);
    z->range <<= 8;
}

static inline uint32_t g4_xz_bit(g4_xz_stream *z, uint16_t *odds)
{
    g4_xz_refill(z);
    const uint32_t bound = (z->range >> 11) * *odds;
    if (z->code < bound) {
        z->range = bound;
        *odds = (uint16_t)(*odds + ((2048 - *odds) >> 5));
        return 0;
    }
    z->range -= bound;
    z->code -= bound;
    *odds = (uint16_t)(*odds - (*odds >> 5));
    return 1;
}

/* n bits, each with odds that the ones before it choose: the highest first, or the lowest. */
static uint32_t g4_xz_tree(g4_xz_stream *z, uint16_t *odds, uint32_t n)
{
    uint32_t v = 1;
    for (uint32_t i = 0; i < n; i++) v = v << 1 | g4_xz_bit(z, odds + v);
    return v - (1u << n);
}
static uint32_t g4_xz_low_tree(g4_xz_stream *z, uint16_t *odds, uint32_t n)
{
    uint32_t v = 1, low = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t bit = g4_xz_bit(z, odds + v);
        v = v << 1 | bit;
        low |= bit << i;
    }
    return low;
}

static uint32_t g4_xz_even_bits(g4_xz_stream *z, uint32_t n)
{
    uint32_t v = 0;
    for (uint32_t i = 0; i < n; i++) {
        g4_xz_refill(z);
        z->range >>= 1;
        const uint32_t bit = z->code >= z->range;
        if (bit) z->code -= z->range;
        v = v << 1 | bit;
    }
    return v;
}

/* ---- LZMA -------------------------------------------------------------------------------------- */

static void g4_xz_literal(g4_xz_stream *z)
{
    const uint32_t place = (uint32_t)(z->at - z->first) & ((1u << z->lp) - 1);
    const uint32_t before = z->at > z->first ? z->out[z->at - 1] : 0;
    uint16_t *const odds = z->odds.literal[place << z->lc | before >> (8 - z->lc)];
    uint32_t v = 1;
    if (z->state >= 7) { /* behind a match, the byte that does not match tells something */
        uint32_t other = z->out[z->at - z->back[0] - 1], differs = 0;
        while (v < 256 && !differs) {
            const uint32_t guess = other >> 7 & 1, bit = g4_xz_bit(z, odds + ((1 + guess) << 8) + v);
            v = v << 1 | bit;
            other <<= 1;
            differs = bit != guess;
        }
    }
    while (v < 256) v = v << 1 | g4_xz_bit(z, odds + v);
    z->out[z->at++] = (uint8_t)v;
    z->state = z->state < 4 ? 0 : z->state < 10 ? z->state - 3 : z->state - 6;
}

static uint32_t g4_xz_length(g4_xz_stream *z, g4_xz_lengths *odds, uint32_t place)
{
    if (!g4_xz_bit(z, &odds->is_long)) return 2 + g4_xz_tree(z, odds->low[place], 3);
    if (!g4_xz_bit(z, &odds->is_longest)) return 10 + g4_xz_tree(z, odds->middle[place], 3);
    return 18 + g4_xz_tree(z, odds->high, 8);
}

static uint32_t g4_xz_distance(g4_xz_stream *z, uint32_t length)
{
    const uint32_t slot = g4_xz_tree(z, z->odds.slot[length < 6 ? length - 2 : 3], 6), n = (slot >> 1) - 1;
    if (slot < 4) return slot;
    const uint32_t high = (2 | (slot & 1)) << n;
    if (slot < 14) return high + g4_xz_low_tree(z, z->odds.special + high - slot, n);
    const uint32_t middle = g4_xz_even_bits(z, n - 4) << 4;
    return high + middle + g4_xz_low_tree(z, z->odds.low, 4);
}

/* One of the last four distances becomes the first. Returns 1 where only a byte is meant. */
static int g4_xz_again(g4_xz_stream *z, uint32_t place)
{
    g4_xz_odds *const o = &z->odds;
    const uint32_t state = z->state;
    if (!g4_xz_bit(z, &o->is_again_0[state])) return !g4_xz_bit(z, &o->is_longer[state][place]);
    const uint32_t i = !g4_xz_bit(z, &o->is_again_1[state]) ? 1 : 2 + g4_xz_bit(z, &o->is_again_2[state]);
    const uint32_t back = z->back[i];
    memmove(z->back + 1, z->back, i * sizeof *z->back);
    z->back[0] = back;
    return 0;
}

/* The length of a match, whose distance becomes back[0]. */
static uint32_t g4_xz_match(g4_xz_stream *z, uint32_t place)
{
    const uint32_t is_behind = z->state >= 7 ? 3 : 0; /* it follows another one */
    uint32_t length = 1;
    if (!g4_xz_bit(z, &z->odds.is_again[z->state])) {
        memmove(z->back + 1, z->back, 3 * sizeof *z->back);
        length = g4_xz_length(z, &z->odds.length, place);
        z->back[0] = g4_xz_distance(z, length);
        z->state = 7 + is_behind;
    } else if (g4_xz_again(z, place)) {
        z->state = is_behind ? 11 : 9;
    } else {
        length = g4_xz_length(z, &z->odds.again, place);
        z->state = 8 + is_behind;
    }
    return length;
}

/* Bytes up to `to` of what is unpacked. Returns NULL or what is wrong. */
static const char *g4_xz_unpack(g4_xz_stream *z, size_t to)
{
    while (z->at < to) {
        const uint32_t place = (uint32_t)(z->at - z->first) & ((1u << z->pb) - 1);
        size_t n = 1;
        if (!g4_xz_bit(z, &z->odds.is_match[z->state][place])) {
            g4_xz_literal(z);
        } else {
            n = g4_min_size(g4_xz_match(z, place), to - z->at);
            if (z->back[0] >= z->at - z->first) return "a match before the first byte";
            const uint8_t *from = z->out + z->at - z->back[0] - 1;
            for (size_t i = 0; i < n; i++) z->out[z->at + i] = from[i]; /* they may overlap */
            z->at += n;
        }
        if (z->is_short) return "truncated";
        if (g4_pace_ends(z->pace, 16 + n)) return "halted";
    }
    return NULL;
}

/* ---- Chunks ------------------------------------------------------------------------------------ */

static void g4_xz_reset(g4_xz_stream *z)
{
    uint16_t *odds = (uint16_t *)&z->odds; /* it holds nothing else */
    for (size_t i = 0; i < sizeof z->odds / sizeof *odds; i++) odds[i] = G4_XZ_EVEN;
    z->state = 0;
    memset(z->back, 0, sizeof z->back);
}

static int g4_xz_properties(g4_xz_stream *z, uint8_t v)
{
    z->lc = v % 9;
    z->lp = v / 9 % 5;
    z->pb = v / 45;
    return z->lc + z->lp <= 4 && z->pb <= 4;
}

/* A packed chunk: control, bytes of what is unpacked (5 bits there, and 2 bytes), packed bytes (2), properties where
 * the control says so. *p moves behind it. */
static const char *g4_xz_packed_chunk(g4_xz_stream *z, const uint8_t **p, const uint8_t *end, size_t size)
{
    const uint8_t *const d = *p;
    const uint32_t control = d[0], head = control >= 0xc0 ? 6 : 5;
    if (end - d < (ptrdiff_t)head + 5) return "truncated";
    const size_t bytes = ((size_t)(control & 0x1f) << 16) + g4_be16(d + 1) + 1, packed = g4_be16(d + 3) + 1;
    if (control >= 0xc0 && !g4_xz_properties(z, d[5])) return "unknown properties";
    if (control >= 0xa0) g4_xz_reset(z);
    z->p = d + head + 5;
    z->end = d + head + g4_min_size(g4_max_size(packed, 5), (size_t)(end - d) - head);
    z->range = UINT32_MAX;
    z->code = g4_be32(d + head + 1);
    *p = z->end;
    return g4_xz_unpack(z, z->at + g4_min_size(bytes, size - z->at));
}

/* A chunk as it is: control, bytes (2). */
static const char *g4_xz_bare_chunk(g4_xz_stream *z, const uint8_t **p, const uint8_t *end, size_t size)
{
    const size_t bytes = end - *p < 3 ? 0 : g4_be16(*p + 1) + 1, n = g4_min_size(bytes, size - z->at);
    if (bytes == 0 || n > (size_t)(end - *p) - 3) return "truncated";
    memcpy(z->out + z->at, *p + 3, n);
    z->at += n;
    *p += 3 + g4_min_size(bytes, (size_t)(end - *p) - 3);
    return g4_pace_ends(z->pace, n) ? "halted" : NULL;
}

static const char *g4_xz_chunks(g4_xz_stream *z, const uint8_t *p, const uint8_t *end, size_t size)
{
    int has_dictionary = 0, has_odds = 0;
    const char *wrong = NULL;
    while (z->at < size && !wrong) {
        const uint32_t control = p == end ? 0 : *p;
        if (control == 0) return "truncated";
        if (control == 1 || control >= 0xe0) {
            z->first = z->at;
            has_dictionary = 1;
            has_odds = 0;
        }
        has_odds |= control >= 0xc0;
        if (!has_dictionary || (control > 2 && (control < 0x80 || !has_odds))) return "a chunk that makes no sense";
        wrong = control > 2 ? g4_xz_packed_chunk(z, &p, end, size) : g4_xz_bare_chunk(z, &p, end, size);
    }
    return wrong;
}

/* ---- Streams ----------------------------------------------------------------------------------- */

/* The head of the stream (12 bytes), and of its block: its length in words less 1, flags (filters less 1, and whether
 * lengths follow), the filters (number, bytes that it has, these), a checksum. *step: the distance of bytes whose
 * differences are packed; 0: they are packed themselves. Returns the bytes of both; 0: they make no sense. */
static size_t g4_xz_head(const uint8_t *p, size_t n, size_t *step)
{
    enum { HEAD = 12, DELTA = 3, LZMA2 = 0x21 };
    *step = 0;
    if (n < HEAD + 12 ||
        memcmp(p,
               "\xfd"
               "7zXZ",
               6) != 0 ||
        p[HEAD] == 0)
        return 0;
    const size_t bytes = HEAD + ((size_t)p[HEAD] + 1) * 4;
    size_t at = HEAD + 2;
    if (bytes > n) return 0;
    for (int i = 6; i < 8; i++) { /* numbers of 7 bits a byte, which need not be known */
        if (!(p[HEAD + 1] >> i & 1)) continue;
        while (at < bytes && p[at] & 0x80) at++;
        at++;
    }
    if ((p[HEAD + 1] & 3) == 1 && at + 3 <= bytes && p[at] == DELTA && p[at + 1] == 1) {
        *step = p[at + 2] + 1u;
        at += 3;
    }
    return (p[HEAD + 1] & 3) == (*step ? 1 : 0) && at + 3 <= bytes && p[at] == LZMA2 && p[at + 1] == 1 ? bytes : 0;
}

const char *g4_xz(const uint8_t *p, size_t n, uint8_t *out, size_t size, g4_pace *pace)
{
    size_t step;
    const size_t head = g4_xz_head(p, n, &step);
    g4_xz_stream z = { .out = out, .pace = pace };
    const char *wrong = head ? g4_xz_chunks(&z, p + head, p + n, size) : "no xz stream that is known";
    for (size_t i = step; step > 0 && i < size && !wrong; i++) out[i] = (uint8_t)(out[i] + out[i - step]);
    return wrong;
}
