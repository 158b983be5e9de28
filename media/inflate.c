/* inflate.c - zlib streams (RFC 1950, RFC 1951), in which PNG keeps its pixels. Reading checks all that a stream says,
 * its checksum included if it is there. Writing tries one earlier place for each match and makes codes for each block:
 * the files are not the smallest, but the code is small. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

/* ---- What both directions know -------------------------------------------------------------- */

#define G4_ZLIB_LITERALS 286 /* symbols of the first code: 256 bytes, the end of the block, 29 match lengths */
#define G4_ZLIB_DISTANCES 30 /* symbols of the second */
#define G4_ZLIB_FIXED 288    /* symbols of the first code when it is the one that every decoder knows */
#define G4_ZLIB_BITS_MAX 15  /* bits of their longest codes */
#define G4_ZLIB_END 256      /* the symbol that ends a block */
#define G4_ZLIB_MATCHES 29   /* symbols behind it: match lengths */
#define G4_ZLIB_LENGTHS 19   /* symbols of the code in which the lengths of both codes are written */

/* A match length or distance is a base plus extra bits (RFC 1951, 3.2.5). */
static const uint16_t g4_zlib_length_base[G4_ZLIB_MATCHES] = { 3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
                                                               15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
                                                               67, 83, 99, 115, 131, 163, 195, 227, 258 };
static const uint8_t g4_zlib_length_extra[G4_ZLIB_MATCHES] = { 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                                               2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0 };
static const uint16_t g4_zlib_distance_base[G4_ZLIB_DISTANCES] = { 1,    2,    3,    4,     5,     7,    9,    13,
                                                                   17,   25,   33,   49,    65,    97,   129,  193,
                                                                   257,  385,  513,  769,   1025,  1537, 2049, 3073,
                                                                   4097, 6145, 8193, 12289, 16385, 24577 };
static inline unsigned g4_zlib_distance_extra(int code) { return code < 4 ? 0 : (unsigned)code / 2 - 1; }

/* The order in which a block gives the lengths of the code of code lengths (RFC 1951, 3.2.7). */
static const uint8_t g4_zlib_order[G4_ZLIB_LENGTHS] = {
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15
};

/* A code as it stands in the stream, highest bit first, while everything else begins with the lowest. */
static inline unsigned g4_zlib_reverse(unsigned code, int n_bits)
{
    unsigned reversed = 0;
    for (int i = 0; i < n_bits; i++) reversed |= (code >> i & 1u) << (n_bits - 1 - i);
    return reversed;
}

/* Go on with a sum, which begins as 1. When the call is halted, that of what comes first. */
static uint32_t g4_adler32(uint32_t sum, const uint8_t *p, size_t n, g4_halt *halt)
{
    const uint32_t modulus = 65521; /* the largest prime below 2^16 */
    const size_t run_max = 5552;    /* bytes after which the sums are still below 2^32 */
    uint32_t a = sum & 0xffff, b = sum >> 16;
    g4_pace pace = { halt, 0 };
    while (n > 0 && !g4_pace_ends(&pace, run_max)) {
        size_t run = n < run_max ? n : run_max;
        n -= run;
        while (run-- > 0) {
            a += *p++;
            b += a;
        }
        a %= modulus;
        b %= modulus;
    }
    return b << 16 | a;
}

/* ---- Bits of a stream ----------------------------------------------------------------------- */

typedef struct {
    g4_next_piece_fn next;
    void *ctx;
    const uint8_t *p, *end; /* the piece being read */
    uint64_t bits;          /* the next one lowest */
    unsigned n_bits;        /* held */
    unsigned invented;      /* zero bytes put in after the end */
} g4_bits;

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

static inline void g4_bits_drop(g4_bits *b, unsigned n)
{
    b->bits >>= n;
    b->n_bits -= n;
}

static uint32_t g4_bits_get(g4_bits *b, unsigned n) /* n <= 16 */
{
    if (b->n_bits < n) g4_bits_fill(b);
    const uint32_t v = (uint32_t)(b->bits & ((UINT64_C(1) << n) - 1));
    g4_bits_drop(b, n);
    return v;
}

/* Go to the border of a byte; only whole bytes are held behind it. */
static void g4_bits_align(g4_bits *b) { g4_bits_drop(b, b->n_bits & 7); }

/* Were bits used that the stream does not have? */
static int g4_bits_overrun(const g4_bits *b) { return b->invented * 8 > b->n_bits; }

/* ---- Huffman codes -------------------------------------------------------------------------- */

#define G4_HUFF_FAST 10 /* bits of the codes that one look-up decodes */

typedef struct {
    uint16_t fast[1 << G4_HUFF_FAST];     /* symbol << 4 | length, by the next bits; 0: a longer code */
    uint16_t count[G4_ZLIB_BITS_MAX + 1]; /* codes of each length */
    uint16_t symbol[G4_ZLIB_FIXED];       /* in order of code */
} g4_huff;

/* Every number of G4_HUFF_FAST bits that begins with the code. */
static void g4_huff_put_fast(g4_huff *h, int symbol, unsigned code, int length)
{
    if (length > G4_HUFF_FAST) return;
    for (unsigned i = g4_zlib_reverse(code, length); i < 1u << G4_HUFF_FAST; i += 1u << length)
        h->fast[i] = (uint16_t)(symbol << 4 | length);
}

/* The canonical code of these lengths (RFC 1951, 3.2.2). 0: it is over-subscribed, or incomplete with more than one
 * code. */
static int g4_huff_build(g4_huff *h, const uint8_t *length, int n)
{
    uint16_t offset[G4_ZLIB_BITS_MAX + 1], code[G4_ZLIB_BITS_MAX + 1];
    memset(h, 0, sizeof *h);
    for (int i = 0; i < n; i++) h->count[length[i]]++;
    const int used = n - h->count[0];
    h->count[0] = 0;
    int left = 1; /* codes of a length that no shorter one begins */
    for (int l = 1; l <= G4_ZLIB_BITS_MAX; l++) {
        left = 2 * left - h->count[l];
        if (left < 0) return 0;
    }
    if (left > 0 && used > 1) return 0;
    offset[1] = code[1] = 0;
    for (int l = 1; l < G4_ZLIB_BITS_MAX; l++) {
        offset[l + 1] = (uint16_t)(offset[l] + h->count[l]);
        code[l + 1] = (uint16_t)((code[l] + h->count[l]) << 1);
    }
    for (int i = 0; i < n; i++) {
        const int l = length[i];
        if (l == 0) continue;
        h->symbol[offset[l]++] = (uint16_t)i;
        g4_huff_put_fast(h, i, code[l]++, l);
    }
    return 1;
}

static int g4_huff_get(g4_bits *b, const g4_huff *h) /* -1: there is no such code */
{
    if (b->n_bits < G4_ZLIB_BITS_MAX) g4_bits_fill(b);
    const unsigned entry = h->fast[b->bits & ((1u << G4_HUFF_FAST) - 1)];
    if (entry) {
        g4_bits_drop(b, entry & 15);
        return (int)(entry >> 4);
    }
    int code = 0, first = 0, index = 0; /* first: code of this length; index: of its symbol */
    for (unsigned l = 1; l <= G4_ZLIB_BITS_MAX; l++) {
        code |= (int)(b->bits >> (l - 1) & 1);
        const int count = h->count[l];
        if (code - count < first) {
            g4_bits_drop(b, l);
            return h->symbol[index + (code - first)];
        }
        index += count;
        first = (first + count) << 1;
        code <<= 1;
    }
    return -1;
}

/* ---- Unpacking ------------------------------------------------------------------------------
 *
 * Each step returns NULL or what is wrong with the stream. */

typedef struct {
    g4_bits in;
    uint8_t *out;
    size_t size, n;    /* of out; n bytes are there */
    g4_drain_fn drain; /* NULL: out takes all; else it is a window, which goes on when it is full */
    void *drain_ctx;
    size_t drained; /* bytes of out that the drain has seen */
    uint32_t sum;   /* of these */
    g4_huff literals, distances;
    g4_halt *halt;
} g4_inflater;

static const char g4_inflate_halted[] = "halted";
static const char g4_inflate_truncated[] = "truncated";
static const char g4_inflate_bad_sum[] = "checksum of the data does not match";
static const char g4_inflate_full[] = "more data than there is room for";

#define G4_ZLIB_BACK 32768 /* bytes that a match may go back */

/* Room for more, when out is full. NULL, or what ends the stream. */
static const char *g4_inflate_go_on(g4_inflater *z)
{
    if (!z->drain) return g4_inflate_full;
    z->sum = g4_adler32(z->sum, z->out + z->drained, z->n - z->drained, z->halt);
    if (z->drain(z->drain_ctx, z->out + z->drained, z->n - z->drained)) return g4_inflate_full;
    if (g4_halted(z->halt)) return g4_inflate_halted;
    const size_t keep = g4_min_size(z->n, G4_ZLIB_BACK);
    memmove(z->out, z->out + z->n - keep, keep);
    z->n = z->drained = keep;
    return NULL;
}

static const char *g4_inflate_stored(g4_inflater *z)
{
    g4_bits_align(&z->in);
    const uint32_t n = g4_bits_get(&z->in, 16), check = g4_bits_get(&z->in, 16);
    if (g4_bits_overrun(&z->in)) return g4_inflate_truncated;
    if ((n ^ check) != 0xffff) return "stored block with a bad length";
    for (uint32_t i = 0; i < n; i++) {
        const char *wrong = z->n == z->size ? g4_inflate_go_on(z) : NULL;
        if (wrong) return wrong;
        const uint32_t byte = g4_bits_get(&z->in, 8);
        if (g4_bits_overrun(&z->in)) return g4_inflate_truncated;
        z->out[z->n++] = (uint8_t)byte;
    }
    return NULL;
}

/* The codes that every decoder knows (RFC 1951, 3.2.6). */
static void g4_inflate_fixed_codes(g4_inflater *z)
{
    uint8_t length[G4_ZLIB_FIXED];
    for (int i = 0; i < G4_ZLIB_FIXED; i++) length[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    g4_huff_build(&z->literals, length, G4_ZLIB_FIXED);
    memset(length, 5, 32);
    g4_huff_build(&z->distances, length, 32);
}

/* The n code lengths of a block, coded with the code in z->literals (RFC 1951, 3.2.7). */
static const char *g4_inflate_lengths(g4_inflater *z, uint8_t *length, int n)
{
    for (int i = 0; i < n;) {
        const int symbol = g4_huff_get(&z->in, &z->literals);
        if (symbol < 0) return "bad code length";
        if (g4_bits_overrun(&z->in)) return g4_inflate_truncated;
        int repeat = 1;
        uint8_t value = (uint8_t)symbol;
        if (symbol >= 16) {
            if (symbol == 16 && i == 0) return "repeat without a length before it";
            value = symbol == 16 ? length[i - 1] : 0;
            repeat = symbol == 16   ? 3 + (int)g4_bits_get(&z->in, 2)
                     : symbol == 17 ? 3 + (int)g4_bits_get(&z->in, 3)
                                    : 11 + (int)g4_bits_get(&z->in, 7);
        }
        if (i + repeat > n) return "code lengths run over";
        while (repeat-- > 0) length[i++] = value;
    }
    return NULL;
}

/* The two codes that a block brings with it. */
static const char *g4_inflate_own_codes(g4_inflater *z)
{
    uint8_t length[G4_ZLIB_LITERALS + G4_ZLIB_DISTANCES] = { 0 };
    const int n_literals = (int)g4_bits_get(&z->in, 5) + 257, n_distances = (int)g4_bits_get(&z->in, 5) + 1;
    const int n_lengths = (int)g4_bits_get(&z->in, 4) + 4;
    if (n_literals > G4_ZLIB_LITERALS || n_distances > G4_ZLIB_DISTANCES) return "too many length or distance codes";
    for (int i = 0; i < n_lengths; i++) length[g4_zlib_order[i]] = (uint8_t)g4_bits_get(&z->in, 3);
    if (!g4_huff_build(&z->literals, length, G4_ZLIB_LENGTHS)) return "bad code of code lengths";
    memset(length, 0, G4_ZLIB_LENGTHS);
    const char *wrong = g4_inflate_lengths(z, length, n_literals + n_distances);
    if (wrong) return wrong;
    if (length[G4_ZLIB_END] == 0) return "no end-of-block code";
    if (!g4_huff_build(&z->distances, length + n_literals, n_distances)) return "bad distance code";
    if (!g4_huff_build(&z->literals, length, n_literals)) return "bad literal code";
    return NULL;
}

/* A match of n bytes that began `back` bytes before pos; an overlap repeats. */
static void g4_inflate_copy(uint8_t *out, size_t pos, size_t back, size_t n)
{
    if (back >= n) {
        memcpy(out + pos, out + pos - back, n);
    } else {
        for (size_t i = 0; i < n; i++) out[pos + i] = out[pos + i - back];
    }
}

/* A match of a symbol behind the end of the block, in pieces where out is full in between. */
static const char *g4_inflate_match(g4_inflater *z, int index)
{
    g4_bits *b = &z->in;
    size_t n = g4_zlib_length_base[index] + g4_bits_get(b, g4_zlib_length_extra[index]);
    const int d = g4_huff_get(b, &z->distances);
    if (d < 0 || d >= G4_ZLIB_DISTANCES) return "bad distance code in the data";
    const size_t back = g4_zlib_distance_base[d] + g4_bits_get(b, g4_zlib_distance_extra(d));
    if (back > z->n) return "distance before the start";
    if (g4_bits_overrun(b)) return g4_inflate_truncated;
    for (;;) {
        const size_t count = g4_min_size(n, z->size - z->n);
        g4_inflate_copy(z->out, z->n, back, count);
        z->n += count;
        n -= count;
        if (n == 0) return NULL;
        const char *wrong = g4_inflate_go_on(z);
        if (wrong) return wrong;
    }
}

/* Literals and matches up to the end of the block. */
static const char *g4_inflate_symbols(g4_inflater *z)
{
    g4_bits *b = &z->in;
    size_t ask = z->n + G4_PACE; /* each symbol gives a byte or more: there, the halt is asked next */
    for (;;) {
        if (z->n >= ask) {
            if (g4_halted(z->halt)) return g4_inflate_halted;
            ask = z->n + G4_PACE;
        }
        const int symbol = g4_huff_get(b, &z->literals);
        const char *wrong = NULL;
        if (symbol < 0) return "bad literal code in the data";
        if (g4_bits_overrun(b)) return g4_inflate_truncated;
        if (symbol == G4_ZLIB_END) return NULL;
        if (z->n == z->size) wrong = g4_inflate_go_on(z);
        if (wrong) return wrong;
        if (symbol < G4_ZLIB_END) {
            z->out[z->n++] = (uint8_t)symbol;
            continue;
        }
        if (symbol - G4_ZLIB_END - 1 >= G4_ZLIB_MATCHES) return "bad length code in the data";
        wrong = g4_inflate_match(z, symbol - G4_ZLIB_END - 1);
        if (wrong) return wrong;
    }
}

static const char *g4_inflate_block(g4_inflater *z, uint32_t type)
{
    if (type == 0) return g4_inflate_stored(z);
    if (type > 2) return "bad block type";
    if (type == 1) {
        g4_inflate_fixed_codes(z);
    } else {
        const char *wrong = g4_inflate_own_codes(z);
        if (wrong) return wrong;
    }
    return g4_inflate_symbols(z);
}

/* All blocks, and the checksum, if it is there. */
static const char *g4_inflate_stream(g4_inflater *z)
{
    const uint32_t method = g4_bits_get(&z->in, 8), flags = g4_bits_get(&z->in, 8);
    if ((method & 15) != 8 || method >> 4 > 7 || (method << 8 | flags) % 31 != 0 || flags & 32)
        return "not a zlib stream";
    for (uint32_t final = 0; !final;) {
        if (g4_halted(z->halt)) return g4_inflate_halted;
        final = g4_bits_get(&z->in, 1);
        const char *wrong = g4_inflate_block(z, g4_bits_get(&z->in, 2));
        if (wrong) return wrong;
        if (g4_bits_overrun(&z->in)) return g4_inflate_truncated;
    }
    g4_bits_align(&z->in);
    uint32_t sum = 0;
    for (int i = 0; i < 4; i++) sum = sum << 8 | g4_bits_get(&z->in, 8);
    if (g4_bits_overrun(&z->in)) return g4_inflate_truncated;
    const uint32_t found = g4_adler32(z->sum, z->out + z->drained, z->n - z->drained, z->halt);
    return sum == found ? NULL : g4_inflate_bad_sum;
}

const char *g4_inflate(g4_next_piece_fn next, void *ctx, uint8_t *out, size_t size, size_t *n, g4_halt *halt)
{
    g4_inflater z = { .in = { .next = next, .ctx = ctx }, .out = out, .size = size, .sum = 1, .halt = halt };
    const char *wrong = g4_inflate_stream(&z);
    *n = z.n;
    return z.n == size && wrong != g4_inflate_bad_sum && wrong != g4_inflate_halted ? NULL : wrong;
}

const char *g4_inflate_rows(g4_next_piece_fn next, void *ctx, uint8_t *window, g4_drain_fn drain, void *drain_ctx,
                            g4_halt *halt)
{
    g4_inflater z = { .in = { .next = next, .ctx = ctx }, .out = window, .size = G4_INFLATE_WINDOW, .sum = 1 };
    z.drain = drain;
    z.drain_ctx = drain_ctx;
    z.halt = halt;
    const char *wrong = g4_inflate_stream(&z);
    const int has = wrong == g4_inflate_full ? 2 : drain(drain_ctx, window + z.drained, z.n - z.drained);
    if (wrong == g4_inflate_bad_sum && has < 2) return wrong;
    return has && wrong != g4_inflate_halted ? NULL : wrong;
}

/* ---- Codes for packing ---------------------------------------------------------------------- */

/* The two lightest of n nodes; weight 0: not a node, or one that was joined already. */
static void g4_lightest_two(const uint32_t *weight, int n, int *first, int *second)
{
    int a = -1, b = -1;
    for (int i = 0; i < n; i++) {
        if (weight[i] == 0) continue;
        if (a < 0 || weight[i] < weight[a]) {
            b = a;
            a = i;
        } else if (b < 0 || weight[i] < weight[b]) {
            b = i;
        }
    }
    *first = a;
    *second = b;
}

/* The Huffman tree over n symbols of these weights: parent of every node, -1 for the root and for what has no weight.
 * Both arrays have room for 2 n. */
static void g4_huffman_tree(uint32_t *weight, int *parent, int n)
{
    int nodes = n, open = 0;
    for (int i = 0; i < n; i++) {
        parent[i] = -1;
        open += weight[i] > 0;
    }
    for (; open > 1; open--) {
        int a, b;
        g4_lightest_two(weight, nodes, &a, &b);
        weight[nodes] = weight[a] + weight[b];
        weight[a] = weight[b] = 0;
        parent[a] = parent[b] = nodes;
        parent[nodes++] = -1;
    }
}

/* Huffman code lengths of at most `limit` bits for n symbols; frequencies are halved until they fit. */
static void g4_code_lengths(const uint32_t *freq, int n, int limit, uint8_t *length)
{
    uint32_t weight[2 * G4_ZLIB_LITERALS];
    int parent[2 * G4_ZLIB_LITERALS], longest, shift = 0;
    do {
        for (int i = 0; i < n; i++) weight[i] = freq[i] ? (freq[i] >> shift) + 1 : 0;
        g4_huffman_tree(weight, parent, n);
        longest = 0;
        for (int i = 0; i < n; i++) {
            int depth = 0;
            for (int k = i; parent[k] >= 0; k = parent[k]) depth++;
            if (freq[i] && depth == 0) depth = 1; /* a single symbol still takes a bit */
            length[i] = (uint8_t)depth;
            longest = g4_max_int(longest, depth);
        }
        shift++;
    } while (longest > limit);
}

/* The canonical codes of these lengths, as they stand in the stream. */
static void g4_canonical_codes(const uint8_t *length, int n, uint16_t *code)
{
    unsigned next = 0;
    for (int l = 1; l <= G4_ZLIB_BITS_MAX; l++, next <<= 1) {
        for (int i = 0; i < n; i++) {
            if (length[i] == l) code[i] = (uint16_t)g4_zlib_reverse(next++, l);
        }
    }
}

/* The last of n bases that is not above v. */
static int g4_base_index(const uint16_t *base, int n, int v)
{
    int i = 0;
    while (i + 1 < n && base[i + 1] <= v) i++;
    return i;
}
static int g4_length_index(int length) { return g4_base_index(g4_zlib_length_base, G4_ZLIB_MATCHES, length); }
static int g4_distance_index(int distance) { return g4_base_index(g4_zlib_distance_base, G4_ZLIB_DISTANCES, distance); }

/* ---- Packing -------------------------------------------------------------------------------- */

#define G4_DEFLATE_SYMBOLS (1 << 15) /* of a block */
#define G4_MATCH_MIN 4               /* bytes, as many as are hashed */
#define G4_MATCH_MAX 258
#define G4_MATCH_WINDOW 32768 /* bytes back */

typedef struct {
    uint32_t distance; /* 0: length is a literal byte */
    uint32_t length;
} g4_deflate_symbol;

typedef struct {
    g4_buf *out;
    uint64_t bits; /* n_bits that do not fill a byte yet */
    unsigned n_bits;
    g4_deflate_symbol symbols[G4_DEFLATE_SYMBOLS]; /* of the block */
    int n_symbols;
    uint32_t literal_freq[G4_ZLIB_LITERALS], distance_freq[G4_ZLIB_DISTANCES];
    uint32_t latest[1 << 16]; /* by hash of four bytes: 1 + where they stood last, 0: nowhere */
} g4_deflater;

static void g4_deflate_put(g4_deflater *d, uint32_t value, unsigned n)
{
    d->bits |= (uint64_t)value << d->n_bits;
    d->n_bits += n;
    while (d->n_bits >= 8) {
        const uint8_t byte = (uint8_t)(d->bits & 255);
        g4_buf_add(d->out, &byte, 1);
        d->bits >>= 8;
        d->n_bits -= 8;
    }
}

/* The lengths of the block's two codes, in a code of their own. Without run lengths: that costs 100 bytes a block. */
static void g4_deflate_put_codes(g4_deflater *d, const uint8_t *length)
{
    uint8_t small_length[G4_ZLIB_LENGTHS];
    uint16_t small_code[G4_ZLIB_LENGTHS];
    uint32_t freq[G4_ZLIB_LENGTHS] = { 0 };
    const int n = G4_ZLIB_LITERALS + G4_ZLIB_DISTANCES;
    for (int i = 0; i < n; i++) freq[length[i]]++;
    g4_code_lengths(freq, G4_ZLIB_LENGTHS, 7, small_length);
    g4_canonical_codes(small_length, G4_ZLIB_LENGTHS, small_code);
    g4_deflate_put(d, G4_ZLIB_LITERALS - 257, 5);
    g4_deflate_put(d, G4_ZLIB_DISTANCES - 1, 5);
    g4_deflate_put(d, G4_ZLIB_LENGTHS - 4, 4);
    for (int i = 0; i < G4_ZLIB_LENGTHS; i++) g4_deflate_put(d, small_length[g4_zlib_order[i]], 3);
    for (int i = 0; i < n; i++) g4_deflate_put(d, small_code[length[i]], small_length[length[i]]);
}

static void g4_deflate_block(g4_deflater *d, uint32_t final)
{
    uint8_t length[G4_ZLIB_LITERALS + G4_ZLIB_DISTANCES];
    uint8_t *const distance_length = length + G4_ZLIB_LITERALS;
    uint16_t literal[G4_ZLIB_LITERALS], distance[G4_ZLIB_DISTANCES];
    d->literal_freq[G4_ZLIB_END]++;
    g4_code_lengths(d->literal_freq, G4_ZLIB_LITERALS, G4_ZLIB_BITS_MAX, length);
    g4_code_lengths(d->distance_freq, G4_ZLIB_DISTANCES, G4_ZLIB_BITS_MAX, distance_length);
    g4_canonical_codes(length, G4_ZLIB_LITERALS, literal);
    g4_canonical_codes(distance_length, G4_ZLIB_DISTANCES, distance);
    g4_deflate_put(d, final | 2u << 1, 3); /* a block that brings its codes */
    g4_deflate_put_codes(d, length);
    for (int i = 0; i < d->n_symbols; i++) {
        const g4_deflate_symbol s = d->symbols[i];
        if (s.distance == 0) {
            g4_deflate_put(d, literal[s.length], length[s.length]);
            continue;
        }
        const int l = g4_length_index((int)s.length), symbol = G4_ZLIB_END + 1 + l;
        g4_deflate_put(d, literal[symbol], length[symbol]);
        g4_deflate_put(d, s.length - g4_zlib_length_base[l], g4_zlib_length_extra[l]);
        const int k = g4_distance_index((int)s.distance);
        g4_deflate_put(d, distance[k], distance_length[k]);
        g4_deflate_put(d, s.distance - g4_zlib_distance_base[k], g4_zlib_distance_extra(k));
    }
    g4_deflate_put(d, literal[G4_ZLIB_END], length[G4_ZLIB_END]);
    d->n_symbols = 0;
    memset(d->literal_freq, 0, sizeof d->literal_freq);
    memset(d->distance_freq, 0, sizeof d->distance_freq);
}

/* What stands at pos: a match with the latest place of the same hash, or a literal. Such places are remembered. */
static g4_deflate_symbol g4_deflate_look(g4_deflater *d, const uint8_t *raw, size_t size, size_t pos)
{
    const g4_deflate_symbol literal = { 0, raw[pos] };
    if (size - pos < G4_MATCH_MIN) return literal;
    const uint32_t hash = (g4_le32(raw + pos) * 2654435761u) >> 16; /* 2^32 over the golden ratio */
    const size_t before = d->latest[hash];
    d->latest[hash] = (uint32_t)(pos + 1);
    if (before == 0 || pos + 1 - before > G4_MATCH_WINDOW) return literal;
    const size_t distance = pos + 1 - before, limit = size - pos < G4_MATCH_MAX ? size - pos : G4_MATCH_MAX;
    size_t length = 0;
    while (length < limit && raw[pos + length] == raw[pos + length - distance]) length++;
    return length < G4_MATCH_MIN ? literal : (g4_deflate_symbol) { (uint32_t)distance, (uint32_t)length };
}

int g4_deflate(const g4_media_limits *m, const uint8_t *raw, size_t size, g4_buf *out)
{
    g4_deflater *d = g4_alloc(m->a, 1, sizeof *d);
    if (!d) return 1;
    int ends = 0;
    d->out = out;
    g4_deflate_put(d, 0x0178, 16); /* deflate with a window of 32 KiB; 0x7801 is a multiple of 31 */
    for (size_t pos = 0; pos < size && !ends;) {
        const g4_deflate_symbol s = g4_deflate_look(d, raw, size, pos);
        d->symbols[d->n_symbols++] = s;
        if (s.distance) {
            d->literal_freq[G4_ZLIB_END + 1 + g4_length_index((int)s.length)]++;
            d->distance_freq[g4_distance_index((int)s.distance)]++;
        } else {
            d->literal_freq[s.length]++;
        }
        pos += s.distance ? s.length : 1;
        if (d->n_symbols < G4_DEFLATE_SYMBOLS) continue;
        g4_deflate_block(d, 0);
        ends = g4_halted(m->halt) || out->failed;
    }
    g4_deflate_block(d, 1);
    g4_deflate_put(d, 0, (8 - d->n_bits) & 7);
    const uint32_t sum = g4_adler32(1, raw, ends ? 0 : size, m->halt);
    for (int i = 3; i >= 0; i--) g4_deflate_put(d, sum >> (8 * i) & 255, 8);
    g4_free(m->a, d);
    return ends || out->failed;
}
