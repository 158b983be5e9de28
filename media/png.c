/* png.c - reading PNG of every colour type, depth, interlace and tRNS; writing RGB. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>

/* ---- PNG -------------------------------------------------------------------------------------------
 *
 * In: a PNG file (W3C PNG, third edition), the first picture of it. Out: RGB over white. Chunks are checked by their
 * CRC; a damaged ancillary chunk is skipped, a damaged critical one is an error. Gamma and colour profiles are not
 * applied, as in Pillow. */

typedef struct {
    const uint8_t *data;
    size_t size, idat; /* idat: offset of the next chunk to read pixels from */
    uint32_t w, h, depth, type, channels;
    int interlaced, orientation;
    uint8_t palette[256][3]; /* over white */
    int has_key;             /* tRNS of grey and RGB: this sample value is transparent */
    uint32_t key[3];
    uint32_t crc[256];
} g4_png;

static void g4_crc_table(uint32_t *t)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
        t[i] = c;
    }
}
static uint32_t g4_crc(const uint32_t *t, uint32_t crc, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) crc = t[(crc ^ p[i]) & 255] ^ crc >> 8;
    return crc;
}

/* The chunk at offset `at`: length, name and data; 0 when the file ends inside it. crc_ok tells whether its check
 * matches. */
static int g4_png_chunk(const g4_png *g, size_t at, const uint8_t **name, size_t *n, int *crc_ok)
{
    if (at > g->size || g->size - at < 12) return 0;
    *n = g4_be32(g->data + at);
    if (*n > g->size - at - 12) return 0;
    *name = g->data + at + 4;
    *crc_ok = (g4_crc(g->crc, 0xffffffffu, *name, *n + 4) ^ 0xffffffffu) == g4_be32(*name + 4 + *n);
    return 1;
}

static int g4_png_next_idat(void *ctx, const uint8_t **p, const uint8_t **end)
{
    g4_png *g = ctx;
    const uint8_t *name;
    size_t n;
    int crc_ok;
    if (!g4_png_chunk(g, g->idat, &name, &n, &crc_ok) || memcmp(name, "IDAT", 4) != 0) return 0;
    *p = name + 4;
    *end = *p + n;
    g->idat += 12 + n;
    return 1;
}

/* Undo the filters of h rows of n bytes, each behind its filter byte. bpp: bytes back to the pixel on the left. 0:
 * unknown filter. */
static int g4_png_unfilter(uint8_t *raw, size_t n, uint32_t h, size_t bpp)
{
    const uint8_t *up = NULL;
    for (uint32_t y = 0; y < h; y++) {
        uint8_t filter = raw[0], *row = raw + 1;
        switch (filter) {
        case 0: break;
        case 1:
            for (size_t i = bpp; i < n; i++) row[i] = (uint8_t)(row[i] + row[i - bpp]);
            break;
        case 2:
            for (size_t i = 0; up && i < n; i++) row[i] = (uint8_t)(row[i] + up[i]);
            break;
        case 3:
            for (size_t i = 0; i < n; i++) {
                unsigned left = i < bpp ? 0 : row[i - bpp], above = up ? up[i] : 0;
                row[i] = (uint8_t)(row[i] + ((left + above) >> 1));
            }
            break;
        case 4:
            for (size_t i = 0; i < n; i++) {
                int a = i < bpp ? 0 : row[i - bpp], b = up ? up[i] : 0, c = up && i >= bpp ? up[i - bpp] : 0;
                int pa = b - c, pb = a - c, pc = pa + pb;
                if (pa < 0) pa = -pa;
                if (pb < 0) pb = -pb;
                if (pc < 0) pc = -pc;
                row[i] = (uint8_t)(row[i] + (pa <= pb && pa <= pc ? a : pb <= pc ? b : c));
            }
            break;
        default: return 0;
        }
        up = row;
        raw += n + 1;
    }
    return 1;
}

/* n pixels of an unfiltered row to RGB, `step` pixels apart. An index beyond the palette is black, as in Pillow. */
static void g4_png_row(const g4_png *g, const uint8_t *row, uint32_t n, uint8_t *dst, size_t step)
{
    uint32_t wide = g->depth == 16 ? 2 : 1, scale = g->depth < 8 ? 255 / ((1u << g->depth) - 1) : 1;
    for (uint32_t x = 0; x < n; x++, dst += 3 * step) {
        if (g->depth < 8) { /* grey or palette */
            uint32_t bit = x * g->depth,
                     v = (uint32_t)row[bit >> 3] >> (8 - g->depth - (bit & 7)) & ((1u << g->depth) - 1);
            if (g->type == 3) {
                memcpy(dst, g->palette[v], 3);
            } else {
                memset(dst, g->has_key && v == g->key[0] ? 255 : (int)(v * scale), 3);
            }
            continue;
        }
        const uint8_t *p = row + (size_t)x * g->channels * wide;
        if (g->type == 3) {
            memcpy(dst, g->palette[p[0]], 3);
            continue;
        }
        uint32_t colours = g->type & 2 ? 3 : 1, alpha = g->type & 4 ? p[colours * wide] : 255;
        if (g->has_key) {
            uint32_t same = 0;
            for (uint32_t c = 0; c < colours; c++) same += (wide == 2 ? g4_be16(p + 2 * c) : p[c]) == g->key[c];
            if (same == colours) alpha = 0;
        }
        for (uint32_t c = 0; c < 3; c++) {
            uint8_t v = p[colours == 3 ? c * wide : 0];
            dst[c] = alpha == 255 ? v : g4_over_white(v, alpha);
        }
    }
}

static g4_status g4_png_header(g4_png *g, const uint8_t *d, size_t n, g4_error *err)
{
    static const uint8_t channels[7] = { 1, 0, 3, 1, 2, 0, 4 };
    static const uint8_t depths[7] = { 1 | 2 | 4 | 8 | 16, 0, 8 | 16, 1 | 2 | 4 | 8, 8 | 16, 0, 8 | 16 };
    if (n != 13) return g4_fail(err, G4_ERR_FORMAT, "PNG: header of %zu bytes, expected 13", n);
    g->w = g4_be32(d);
    g->h = g4_be32(d + 4);
    g->depth = d[8];
    g->type = d[9];
    g->interlaced = d[12];
    if (g->type > 6 || channels[g->type] == 0 || g->depth == 0 || (g->depth & (g->depth - 1)) ||
        !(depths[g->type] & g->depth))
        return g4_fail(err, G4_ERR_FORMAT, "PNG: colour type %u with %u bits does not exist", (unsigned)g->type,
                       (unsigned)g->depth);
    if (d[10] != 0 || d[11] != 0 || d[12] > 1)
        return g4_fail(err, G4_ERR_FORMAT, "PNG: compression %u, filter %u, interlace %u: expected 0, 0, 0 or 1", d[10],
                       d[11], d[12]);
    g->channels = channels[g->type];
    return G4_OK;
}

static g4_status g4_png_palette(g4_png *g, const uint8_t *plte, size_t n_plte, const uint8_t *trns, size_t n_trns,
                                g4_error *err)
{
    if (g->type == 3) {
        if (!plte || n_plte == 0 || n_plte % 3 != 0 || n_plte > 768)
            return g4_fail(err, G4_ERR_FORMAT, "PNG: palette of %zu bytes, expected 3 to 768 in threes", n_plte);
        for (uint32_t i = 0; i < n_plte / 3; i++) {
            uint32_t alpha = trns && i < n_trns ? trns[i] : 255;
            for (int c = 0; c < 3; c++) g->palette[i][c] = g4_over_white(plte[3 * i + (uint32_t)c], alpha);
        }
    } else if (trns && !(g->type & 4)) {
        uint32_t colours = g->type & 2 ? 3 : 1;
        if (n_trns != 2 * colours)
            return g4_fail(err, G4_ERR_FORMAT, "PNG: tRNS of %zu bytes, expected %u", n_trns, (unsigned)(2 * colours));
        g->has_key = 1;
        for (uint32_t c = 0; c < colours; c++) g->key[c] = g4_be16(trns + 2 * c) & ((1u << g->depth) - 1);
    }
    return G4_OK;
}

/* Adam7: first column and row of each pass, then the steps; pass 7 of the table is the whole picture. */
static const uint8_t g4_adam7[8][4] = { { 0, 0, 8, 8 }, { 4, 0, 8, 8 }, { 0, 4, 4, 8 }, { 2, 0, 4, 4 },
                                        { 0, 2, 2, 4 }, { 1, 0, 2, 2 }, { 0, 1, 1, 2 }, { 0, 0, 1, 1 } };

static g4_status g4_png_pixels(const g4_media *m, g4_png *g, uint64_t idat_bytes, uint8_t *dst, g4_error *err)
{
    uint32_t bits = g->depth * g->channels;
    int first = g->interlaced ? 0 : 7, last = g->interlaced ? 7 : 8;
    uint64_t total = 0;
    for (int i = first; i < last; i++) { /* the pixel limit keeps this far from 2^64 */
        const uint8_t *t = g4_adam7[i];
        uint64_t pw = g->w > t[0] ? (g->w - t[0] + t[2] - 1u) / t[2] : 0,
                 ph = g->h > t[1] ? (g->h - t[1] + t[3] - 1u) / t[3] : 0;
        if (pw && ph) total += ph * ((pw * bits + 7) / 8 + 1);
    }
    /* deflate cannot do better than 258 bytes for 2 bits: no memory is taken on the word of a file that cannot fill it
     */
    if (total / 1032 > idat_bytes)
        return g4_fail(err, G4_ERR_FORMAT, "PNG: truncated: %" PRIu64 " bytes of IDAT cannot hold %u x %u pixels",
                       idat_bytes, (unsigned)g->w, (unsigned)g->h);
    uint8_t *raw = total > SIZE_MAX ? NULL : g4_alloc(m->a, (size_t)total, 1);
    if (!raw) return g4_fail(err, G4_ERR_MEMORY, "PNG: %" PRIu64 " bytes of pixels: out of memory", total);
    g4_bits b = { NULL, NULL, g4_png_next_idat, g, 0, 0, 0 };
    const char *wrong = g4_inflate(m->a, &b, raw, (size_t)total);
    g4_status s = G4_OK;
    if (wrong)
        s = g4_fail(err, strcmp(wrong, "out of memory") ? G4_ERR_FORMAT : G4_ERR_MEMORY,
                    "PNG: pixel data before byte %zu: %s", g->idat, wrong);
    uint8_t *at = raw;
    for (int i = first; !s && i < last; i++) {
        const uint8_t *t = g4_adam7[i];
        if (g->w <= t[0] || g->h <= t[1]) continue;
        uint32_t pw = (g->w - t[0] + t[2] - 1u) / t[2], ph = (g->h - t[1] + t[3] - 1u) / t[3];
        size_t n = ((size_t)pw * bits + 7) / 8;
        if (!g4_png_unfilter(at, n, ph, bits < 8 ? 1 : bits / 8))
            s = g4_fail(err, G4_ERR_FORMAT, "PNG: unknown filter, expected 0 to 4");
        for (uint32_t y = 0; !s && y < ph; y++) {
            uint8_t *d = dst + 3 * ((size_t)(y * t[3] + t[1]) * g->w + t[0]);
            g4_png_row(g, at + y * (n + 1) + 1, pw, d, t[2]);
        }
        at += (size_t)ph * (n + 1);
    }
    g4_free(m->a, raw);
    return s;
}

g4_status g4_png_decode(const g4_media *m, const uint8_t *data, size_t size, uint8_t **pixels, int *w, int *h,
                        g4_error *err)
{
    g4_png g = { 0 };
    const uint8_t *plte = NULL, *trns = NULL, *name = NULL;
    size_t n_plte = 0, n_trns = 0, at = 8, n = 0;
    uint64_t idat_bytes = 0;
    int crc_ok = 0, idat_done = 0;
    g.data = data;
    g.size = size;
    g.orientation = 1;
    g4_crc_table(g.crc);
    *pixels = NULL;
    for (int first = 1;; first = 0) {
        if (!g4_png_chunk(&g, at, &name, &n, &crc_ok))
            return g4_fail(err, G4_ERR_FORMAT, "PNG: truncated in the chunk at byte %zu of %zu", at, size);
        if (!crc_ok && !(name[0] & 32))
            return g4_fail(err, G4_ERR_FORMAT, "PNG: the critical chunk at byte %zu does not match its checksum", at);
        if (first != !memcmp(name, "IHDR", 4))
            return g4_fail(err, G4_ERR_FORMAT, "PNG: IHDR must come first and once (byte %zu)", at);
        if (first) {
            g4_status s = g4_png_header(&g, name + 4, n, err);
            if (s) return s;
        } else if (!memcmp(name, "PLTE", 4)) {
            plte = name + 4;
            n_plte = n;
        } else if (!memcmp(name, "IDAT", 4)) {
            if (g.idat == 0) g.idat = at;
            if (!idat_done) idat_bytes += n;
        } else if (!memcmp(name, "IEND", 4)) {
            break;
        } else if (!(name[0] & 32)) {
            return g4_fail(err, G4_ERR_FORMAT, "PNG: unknown critical chunk at byte %zu", at);
        } else if (crc_ok && !memcmp(name, "tRNS", 4) && g.idat == 0) {
            trns = name + 4;
            n_trns = n;
        } else if (crc_ok && !memcmp(name, "eXIf", 4)) {
            g.orientation = g4_exif_orientation(name + 4, n);
        }
        if (g.idat != 0 && memcmp(name, "IDAT", 4) != 0) idat_done = 1;
        at += 12 + n;
    }
    if (g.idat == 0) return g4_fail(err, G4_ERR_FORMAT, "PNG: no IDAT chunk");
    g4_status s = g4_png_palette(&g, plte, n_plte, trns, n_trns, err);
    if (!s && (g.w == 0 || g.h == 0 || (uint64_t)g.w * g.h <= m->max_pixels) &&
        idat_bytes < (uint64_t)g.w * g.h / 8 / 1032)
        s = g4_fail(err, G4_ERR_FORMAT, "PNG: truncated: %" PRIu64 " bytes of IDAT cannot hold %u x %u pixels",
                    idat_bytes, (unsigned)g.w, (unsigned)g.h);
    if (!s) s = g4_pixels_alloc(m, "PNG", g.w, g.h, pixels, err);
    if (!s) s = g4_png_pixels(m, &g, idat_bytes, *pixels, err);
    *w = (int)g.w;
    *h = (int)g.h;
    if (!s) s = g4_orient(m, pixels, w, h, g.orientation, err);
    if (s) {
        g4_free(m->a, *pixels);
        *pixels = NULL;
    }
    return s;
}

/* ---- Writing PNG, drawing boxes -------------------------------------------------------------------------
 *
 * The writer filters each row as makes its sum of magnitudes smallest and compresses with one candidate per hash and
 * dynamic codes: not the smallest files, but small code. */

typedef struct {
    g4_buf out;
    uint64_t bits;
    unsigned n_bits;
    uint32_t symbols[1 << 15]; /* of the block: a literal byte, or (distance - 1) << 16 | (length + 253) */
    int n_symbols;
    uint32_t lit_freq[286], dist_freq[30];
} g4_deflate;

static void g4_deflate_put(g4_deflate *d, uint32_t value, unsigned n)
{
    d->bits |= (uint64_t)value << d->n_bits;
    d->n_bits += n;
    while (d->n_bits >= 8) {
        char byte = (char)(d->bits & 255);
        g4_buf_add(&d->out, &byte, 1);
        d->bits >>= 8;
        d->n_bits -= 8;
    }
}

/* Huffman code lengths of at most `limit` bits for n <= 286 symbols; frequencies are halved until they fit. */
static void g4_code_lengths(const uint32_t *freq, int n, int limit, uint8_t *length)
{
    uint32_t weight[2 * 286];
    int parent[2 * 286], deepest, shift = 0;
    do {
        int nodes = n, open = 0;
        for (int i = 0; i < n; i++) {
            weight[i] = freq[i] ? (freq[i] >> shift) + 1 : 0;
            parent[i] = -1;
            open += weight[i] > 0;
        }
        for (; open > 1; open--) { /* join the two lightest; a joined node's weight becomes 0 */
            int a = -1, b = -1;
            for (int i = 0; i < nodes; i++) {
                if (weight[i] == 0) continue;
                if (a < 0 || weight[i] < weight[a]) {
                    b = a;
                    a = i;
                } else if (b < 0 || weight[i] < weight[b]) {
                    b = i;
                }
            }
            weight[nodes] = weight[a] + weight[b];
            weight[a] = weight[b] = 0;
            parent[a] = parent[b] = nodes;
            parent[nodes++] = -1;
        }
        deepest = 0;
        for (int i = 0; i < n; i++) {
            int l = 0;
            for (int k = i; parent[k] >= 0; k = parent[k]) l++;
            if (freq[i] && l == 0) l = 1; /* a single symbol still takes a bit */
            length[i] = (uint8_t)l;
            deepest = g4_max_int(deepest, l);
        }
        shift++;
    } while (deepest > limit);
}

/* Canonical codes, highest bit first as the stream wants them. */
static void g4_codes(const uint8_t *length, int n, uint16_t *code)
{
    uint32_t next = 0;
    for (unsigned l = 1; l < 16; l++, next <<= 1) {
        for (int i = 0; i < n; i++) {
            if (length[i] != l) continue;
            uint32_t r = 0;
            for (unsigned b = 0; b < l; b++) r |= (next >> b & 1u) << (l - 1 - b);
            code[i] = (uint16_t)r;
            next++;
        }
    }
}

/* The index, base and extra bits of a match length (3..258) or distance (1..32768), RFC 1951 3.2.5. */
static int g4_length_code(int n, int *base, unsigned *extra)
{
    if (n == 258) {
        *base = 258;
        *extra = 0;
        return 28;
    }
    int code = 0, b = 3;
    unsigned e = 0;
    while (n >= b + (1 << e)) {
        b += 1 << e;
        code++;
        e = code < 8 ? 0 : (unsigned)code / 4 - 1;
    }
    *base = b;
    *extra = e;
    return code;
}
static int g4_distance_code(int n, int *base, unsigned *extra)
{
    int code = 0, b = 1;
    unsigned e = 0;
    while (n >= b + (1 << e)) {
        b += 1 << e;
        code++;
        e = code < 4 ? 0 : (unsigned)code / 2 - 1;
    }
    *base = b;
    *extra = e;
    return code;
}

static void g4_deflate_block(g4_deflate *d, int final)
{
    static const uint8_t order[19] = { 16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15 };
    uint8_t length[286 + 30], small[19];
    uint16_t lit[286], dist[30], small_code[19];
    uint32_t small_freq[19] = { 0 };
    int base;
    unsigned extra;
    d->lit_freq[256]++;
    g4_code_lengths(d->lit_freq, 286, 15, length);
    g4_code_lengths(d->dist_freq, 30, 15, length + 286);
    g4_codes(length, 286, lit);
    g4_codes(length + 286, 30, dist);
    for (int i = 0; i < 316; i++) small_freq[length[i]]++;
    g4_code_lengths(small_freq, 19, 7, small);
    g4_codes(small, 19, small_code);
    g4_deflate_put(d, (uint32_t) final | 2u << 1, 3);
    g4_deflate_put(d, 286 - 257, 5);
    g4_deflate_put(d, 30 - 1, 5);
    g4_deflate_put(d, 19 - 4, 4);
    for (int i = 0; i < 19; i++) g4_deflate_put(d, small[order[i]], 3);
    for (int i = 0; i < 316; i++)
        g4_deflate_put(d, small_code[length[i]], small[length[i]]); /* without run lengths: 100 bytes a block */
    for (int i = 0; i < d->n_symbols; i++) {
        uint32_t s = d->symbols[i];
        int n = (int)(s & 0xffff), back = (int)(s >> 16);
        if (n < 256) {
            g4_deflate_put(d, lit[n], length[n]);
            continue;
        }
        int code = 257 + g4_length_code(n - 253, &base, &extra);
        g4_deflate_put(d, lit[code], length[code]);
        g4_deflate_put(d, (uint32_t)(n - 253 - base), extra);
        code = g4_distance_code(back + 1, &base, &extra);
        g4_deflate_put(d, dist[code], length[286 + code]);
        g4_deflate_put(d, (uint32_t)(back + 1 - base), extra);
    }
    g4_deflate_put(d, lit[256], length[256]);
    d->n_symbols = 0;
    memset(d->lit_freq, 0, sizeof d->lit_freq);
    memset(d->dist_freq, 0, sizeof d->dist_freq);
}

/* A zlib stream of raw (n) in d->out; check d->out.failed. */
static void g4_deflate_all(g4_deflate *d, uint32_t *last /* (65536), zero: position + 1 by hash */, const uint8_t *raw,
                           size_t n)
{
    int base;
    unsigned extra;
    g4_deflate_put(d, 0x0178, 16); /* deflate, window of 32 KiB; 0x7801 is a multiple of 31 */
    for (size_t i = 0; i < n;) {
        size_t match = 0, back = 0;
        if (n - i >= 4) {
            uint32_t hash = (g4_le32(raw + i) * 2654435761u) >> 16;
            size_t before = last[hash]; /* 0: none; pictures are far below 4 GiB */
            last[hash] = (uint32_t)(i + 1);
            if (before && i + 1 - before <= 32768) {
                back = i + 1 - before;
                size_t most = n - i < 258 ? n - i : 258;
                while (match < most && raw[i + match] == raw[i + match - back]) match++;
            }
        }
        if (match >= 4) {
            d->symbols[d->n_symbols++] = (uint32_t)(back - 1) << 16 | (uint32_t)(match + 253);
            d->lit_freq[257 + g4_length_code((int)match, &base, &extra)]++;
            d->dist_freq[g4_distance_code((int)back, &base, &extra)]++;
            i += match;
        } else {
            d->symbols[d->n_symbols++] = raw[i];
            d->lit_freq[raw[i++]]++;
        }
        if (d->n_symbols == 1 << 15) g4_deflate_block(d, 0);
    }
    g4_deflate_block(d, 1);
    g4_deflate_put(d, 0, (8 - d->n_bits) & 7);
    uint32_t sum = g4_adler32(raw, n);
    for (int i = 3; i >= 0; i--) g4_deflate_put(d, sum >> (8 * i) & 255, 8);
}

/* row and up (n bytes; up NULL above the first) -> dst (1 + n): the filter that makes the sum of magnitudes smallest.
 */
static void g4_png_filter(const uint8_t *row, const uint8_t *up, size_t n, uint8_t *dst)
{
    uint64_t best = UINT64_MAX;
    uint8_t chosen = 0;
    for (int pass = 0; pass < 6; pass++) { /* five filters are tried, then the best one written */
        uint8_t filter = pass < 5 ? (uint8_t)pass : chosen;
        uint64_t sum = 0;
        dst[0] = filter;
        for (size_t i = 0; i < n; i++) {
            int a = i < 3 ? 0 : row[i - 3], b = up ? up[i] : 0, c = up && i >= 3 ? up[i - 3] : 0, guess = 0;
            if (filter == 1) guess = a;
            if (filter == 2) guess = b;
            if (filter == 3) guess = (a + b) >> 1;
            if (filter == 4) {
                int pa = b > c ? b - c : c - b, pb = a > c ? a - c : c - a, pc = a + b - 2 * c;
                if (pc < 0) pc = -pc;
                guess = pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
            }
            uint8_t v = (uint8_t)(row[i] - guess);
            dst[1 + i] = v;
            sum += v < 128 ? v : 256u - v;
        }
        if (sum < best) {
            best = sum;
            chosen = filter;
        }
    }
}

static int g4_png_put(const uint32_t *crc, g4_write_fn write, void *user, const char *name, const uint8_t *data,
                      size_t n)
{
    uint8_t head[8], tail[4];
    memcpy(head + 4, name, 4);
    uint32_t sum = g4_crc(crc, g4_crc(crc, 0xffffffffu, head + 4, 4), data, n) ^ 0xffffffffu;
    for (int i = 0; i < 4; i++) {
        head[i] = (uint8_t)(n >> (24 - 8 * i));
        tail[i] = (uint8_t)(sum >> (24 - 8 * i));
    }
    return write(user, head, 8) || (n > 0 && write(user, data, n)) || write(user, tail, 4);
}

G4_API g4_status g4_png_write(const g4_image *image, g4_write_fn write, void *user, const g4_media_options *opt,
                              g4_error *err)
{
    g4_media m = g4_media_resolve(opt);
    if (!image || !image->pixels || image->width <= 0 || image->height <= 0 || !write)
        return g4_fail(err, G4_ERR_ARGUMENT, "PNG: nothing to write");
    size_t row = (size_t)image->width * 3, stride = image->stride ? image->stride : row, total;
    if (stride < row)
        return g4_fail(err, G4_ERR_ARGUMENT, "PNG: stride %zu is less than the %zu bytes of a row", stride, row);
    if (g4_mul_overflows(row + 1, (size_t)image->height, &total) || total > INT32_MAX / 2)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "PNG: %d x %d pixels are too many to write", image->width,
                       image->height);
    uint8_t *raw = g4_alloc(m.a, total, 1);
    uint32_t *last = g4_alloc(m.a, 65536, sizeof *last);
    g4_deflate *d = g4_alloc(m.a, 1, sizeof *d);
    g4_status s = G4_ERR_MEMORY;
    if (raw && last && d) {
        d->out.a = m.a;
        for (size_t y = 0; y < (size_t)image->height; y++) {
            const uint8_t *p = image->pixels + y * stride;
            g4_png_filter(p, y ? p - stride : NULL, row, raw + y * (row + 1));
        }
        g4_deflate_all(d, last, raw, total);
        if (!d->out.failed) s = G4_OK;
    }
    if (s) {
        g4_fail(err, s, "PNG: %d x %d pixels: out of memory", image->width, image->height);
    } else {
        uint32_t crc[256];
        uint8_t ihdr[13] = { 0, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0 }; /* 8 bits, RGB */
        for (int i = 0; i < 4; i++) {
            ihdr[i] = (uint8_t)(image->width >> (24 - 8 * i));
            ihdr[4 + i] = (uint8_t)(image->height >> (24 - 8 * i));
        }
        g4_crc_table(crc);
        if (write(user, "\x89PNG\r\n\x1a\n", 8) || g4_png_put(crc, write, user, "IHDR", ihdr, 13) ||
            g4_png_put(crc, write, user, "IDAT", (const uint8_t *)d->out.data, d->out.len) ||
            g4_png_put(crc, write, user, "IEND", ihdr, 0))
            s = g4_fail(err, G4_ERR_IO, "PNG: the write callback failed");
    }
    if (d) g4_buf_free(&d->out);
    g4_free(m.a, d);
    g4_free(m.a, last);
    g4_free(m.a, raw);
    return s;
}
