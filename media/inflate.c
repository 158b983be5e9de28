/* inflate.c - zlib streams (RFC 1950, 1951). */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

/* ---- Inflate ------------------------------------------------------------------------------------
 *
 * In: a zlib stream (RFC 1950, 1951) in pieces; out: exactly the number of bytes the caller expects. */

static void g4_bits_fill(g4_bits *b)
{
    while (b->n_bits <= 56) {
        uint64_t byte = 0;
        while (b->p == b->end && !b->invented && b->next(b->ctx, &b->p, &b->end)) { /* empty pieces are legal */
        }
        if (b->p < b->end)
            byte = *b->p++;
        else
            b->invented++;
        b->bits |= byte << b->n_bits;
        b->n_bits += 8;
    }
}
static uint32_t g4_bits_get(g4_bits *b, unsigned n) /* n <= 16 */
{
    if (b->n_bits < n) g4_bits_fill(b);
    uint32_t v = (uint32_t)(b->bits & ((UINT64_C(1) << n) - 1));
    b->bits >>= n;
    b->n_bits -= n;
    return v;
}
/* Did the reader use bits that the file does not have? */
static int g4_bits_overrun(const g4_bits *b) { return b->invented * 8 > b->n_bits; }

#define G4_HUFF_FAST 10
typedef struct {
    uint16_t fast[1 << G4_HUFF_FAST]; /* symbol << 4 | length, by the next bits; 0: longer code */
    uint16_t count[16];               /* codes of each length */
    uint16_t symbol[288];             /* in order of code */
} g4_huff;

/* Canonical code from lengths (RFC 1951, 3.2.2). 0: over-subscribed, or incomplete with more than one code. */
static int g4_huff_build(g4_huff *h, const uint8_t *length, int n)
{
    uint16_t offset[16], code[16];
    int left = 1, used = 0;
    memset(h, 0, sizeof *h);
    for (int i = 0; i < n; i++) h->count[length[i]]++;
    used = n - h->count[0];
    h->count[0] = 0;
    for (int l = 1; l < 16; l++) {
        left = 2 * left - h->count[l];
        if (left < 0) return 0;
    }
    if (left > 0 && used > 1) return 0;
    offset[1] = code[1] = 0;
    for (int l = 1; l < 15; l++) {
        offset[l + 1] = (uint16_t)(offset[l] + h->count[l]);
        code[l + 1] = (uint16_t)((code[l] + h->count[l]) << 1);
    }
    for (int i = 0; i < n; i++) {
        int l = length[i];
        if (l == 0) continue;
        h->symbol[offset[l]++] = (uint16_t)i;
        unsigned c = code[l]++, reversed = 0;
        if (l > G4_HUFF_FAST) continue;
        for (int b = 0; b < l; b++) reversed |= (c >> b & 1u) << (l - 1 - b); /* codes arrive highest bit first */
        for (unsigned r = reversed; r < 1u << G4_HUFF_FAST; r += 1u << l) h->fast[r] = (uint16_t)(i << 4 | l);
    }
    return 1;
}

static int g4_huff_get(g4_bits *b, const g4_huff *h) /* -1: no such code */
{
    if (b->n_bits < 15) g4_bits_fill(b);
    unsigned e = h->fast[b->bits & ((1u << G4_HUFF_FAST) - 1)];
    if (e) {
        b->bits >>= e & 15;
        b->n_bits -= e & 15;
        return (int)(e >> 4);
    }
    int code = 0, first = 0, index = 0;
    for (unsigned l = 1; l < 16; l++) {
        code |= (int)(b->bits >> (l - 1) & 1);
        int count = h->count[l];
        if (code - count < first) {
            b->bits >>= l;
            b->n_bits -= l;
            return h->symbol[index + (code - first)];
        }
        index += count;
        first = (first + count) << 1;
        code <<= 1;
    }
    return -1;
}

/* Lengths of the two codes of a dynamic block (RFC 1951, 3.2.7). Returns NULL or what is wrong. */
static const char *g4_inflate_codes(g4_bits *b, g4_huff *lit, g4_huff *dist)
{
    static const uint8_t order[19] = { 16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15 };
    uint8_t length[288 + 32] = { 0 };
    int n_lit = (int)g4_bits_get(b, 5) + 257, n_dist = (int)g4_bits_get(b, 5) + 1, n_code = (int)g4_bits_get(b, 4) + 4;
    if (n_lit > 286 || n_dist > 30) return "too many length or distance codes";
    for (int i = 0; i < n_code; i++) length[order[i]] = (uint8_t)g4_bits_get(b, 3);
    if (!g4_huff_build(lit, length, 19)) return "bad code of code lengths";
    memset(length, 0, 19);
    for (int i = 0; i < n_lit + n_dist;) {
        int s = g4_huff_get(b, lit), repeat = 1;
        uint8_t value = (uint8_t)s;
        if (s < 0 || g4_bits_overrun(b)) return s < 0 ? "bad code length" : "truncated";
        if (s >= 16) {
            if (s == 16 && i == 0) return "repeat without a length before it";
            value = s == 16 ? length[i - 1] : 0;
            repeat = s == 16   ? 3 + (int)g4_bits_get(b, 2)
                     : s == 17 ? 3 + (int)g4_bits_get(b, 3)
                               : 11 + (int)g4_bits_get(b, 7);
        }
        if (i + repeat > n_lit + n_dist) return "code lengths run over";
        while (repeat-- > 0) length[i++] = value;
    }
    if (length[256] == 0) return "no end-of-block code";
    if (!g4_huff_build(dist, length + n_lit, n_dist)) return "bad distance code";
    if (!g4_huff_build(lit, length, n_lit)) return "bad literal code";
    return NULL;
}

/* One Huffman block into out[*pos..size). Returns NULL or what is wrong. */
static const char *g4_inflate_block(g4_bits *b, const g4_huff *lit, const g4_huff *dist, uint8_t *out, size_t size,
                                    size_t *pos)
{
    static const uint16_t len_base[29] = { 3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                           31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258 };
    static const uint8_t len_extra[29] = { 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                           2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0 };
    static const uint16_t dist_base[30] = { 1,    2,    3,    4,    5,    7,    9,    13,    17,    25,
                                            33,   49,   65,   97,   129,  193,  257,  385,   513,   769,
                                            1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577 };
    size_t at = *pos;
    for (;;) {
        int s = g4_huff_get(b, lit);
        if (s < 0) return "bad literal code in the data";
        if (g4_bits_overrun(b)) return "truncated";
        if (s < 256) {
            if (at == size) return "more data than the picture holds";
            out[at++] = (uint8_t)s;
            continue;
        }
        if (s == 256) break;
        if (s > 285) return "bad length code in the data";
        size_t n = len_base[s - 257] + g4_bits_get(b, len_extra[s - 257]);
        int d = g4_huff_get(b, dist);
        if (d < 0 || d > 29) return "bad distance code in the data";
        size_t back = dist_base[d] + g4_bits_get(b, d < 4 ? 0 : (unsigned)d / 2 - 1);
        if (back > at) return "distance before the start";
        if (n > size - at) return "more data than the picture holds";
        if (back >= n) {
            memcpy(out + at, out + at - back, n);
        } else {
            for (size_t i = 0; i < n; i++) out[at + i] = out[at + i - back]; /* overlapping: repeats */
        }
        at += n;
    }
    *pos = at;
    return NULL;
}

uint32_t g4_adler32(const uint8_t *p, size_t n)
{
    uint32_t a = 1, b = 0;
    while (n > 0) {
        size_t m = n < 5552 ? n : 5552; /* the sums stay below 2^32 */
        n -= m;
        while (m-- > 0) {
            a += *p++;
            b += a;
        }
        a %= 65521;
        b %= 65521;
    }
    return b << 16 | a;
}

/* The whole zlib stream of b into out, which it must fill exactly. Returns NULL or what is wrong. */
const char *g4_inflate(const g4_allocator *a, g4_bits *b, uint8_t *out, size_t size)
{
    const char *wrong = NULL;
    size_t at = 0;
    uint32_t cmf = g4_bits_get(b, 8), flags = g4_bits_get(b, 8), final = 0;
    if ((cmf & 15) != 8 || cmf >> 4 > 7 || (cmf << 8 | flags) % 31 != 0 || flags & 32) return "not a zlib stream";
    g4_huff *huff = g4_alloc(a, 2, sizeof *huff); /* literals, distances */
    if (!huff) return "out of memory";
    while (!final && !wrong) {
        final = g4_bits_get(b, 1);
        uint32_t type = g4_bits_get(b, 2);
        if (type == 0) {
            g4_bits_get(b, b->n_bits & 7); /* to the byte border: whole bytes are held */
            uint32_t n = g4_bits_get(b, 16), check = g4_bits_get(b, 16);
            if (g4_bits_overrun(b))
                wrong = "truncated";
            else if ((n ^ check) != 0xffff)
                wrong = "stored block with a bad length";
            else if (n > size - at)
                wrong = "more data than the picture holds";
            for (; !wrong && n > 0; n--) {
                out[at++] = (uint8_t)g4_bits_get(b, 8);
                if (g4_bits_overrun(b)) wrong = "truncated";
            }
        } else if (type == 1) {
            uint8_t length[288];
            for (int i = 0; i < 288; i++) length[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
            g4_huff_build(&huff[0], length, 288);
            memset(length, 5, 32);
            g4_huff_build(&huff[1], length, 32);
            wrong = g4_inflate_block(b, &huff[0], &huff[1], out, size, &at);
        } else if (type == 2) {
            wrong = g4_inflate_codes(b, &huff[0], &huff[1]);
            if (!wrong) wrong = g4_inflate_block(b, &huff[0], &huff[1], out, size, &at);
        } else {
            wrong = "bad block type";
        }
        if (!wrong && g4_bits_overrun(b)) wrong = "truncated";
    }
    g4_free(a, huff);
    if (wrong) return wrong;
    if (at != size) return "less data than the picture needs";
    g4_bits_get(b, b->n_bits & 7);
    uint32_t sum = 0;
    for (int i = 0; i < 4; i++) sum = sum << 8 | g4_bits_get(b, 8);
    if (g4_bits_overrun(b)) return "truncated";
    return sum == g4_adler32(out, size) ? NULL : "checksum of the data does not match";
}
