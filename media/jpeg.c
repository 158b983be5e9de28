/* jpeg.c - JPEG (ITU-T T.81): baseline, extended and progressive Huffman files of 8 bits, grey, YCbCr, RGB, CMYK and
 * YCCK, as RGB. The pixels equal libjpeg-turbo's defaults bit for bit (accurate integer IDCT of jidctint.c, fancy
 * upsampling of jdsample.c, colour tables of jdcolor.c), and CMYK is turned into RGB as Pillow does. A sequential scan
 * is transformed as it is read; progressive ones keep all coefficients until the end. Damage that libjpeg would paint
 * over with a warning is an error here. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>

#define G4_JPEG_SCANS_MAX 256 /* a progressive file of many empty scans would otherwise cost hours */
#define G4_JPEG_BLOCK 64      /* coefficients: 8 rows of 8 */
#define G4_JPEG_MCU_STEPS 512 /* what a unit of a few blocks counts when the halt is to be asked */

enum { /* markers, each behind a byte 0xff */
       G4_JPEG_TEM = 0x01,
       G4_JPEG_SOF0 = 0xc0, /* frames: baseline, extended, progressive */
       G4_JPEG_SOF1 = 0xc1,
       G4_JPEG_SOF2 = 0xc2,
       G4_JPEG_SOF3 = 0xc3, /* up to SOF15: frames that cannot be read */
       G4_JPEG_DHT = 0xc4,  /* Huffman tables */
       G4_JPEG_SOF15 = 0xcf,
       G4_JPEG_RST0 = 0xd0, /* up to 0xd7: restarts */
       G4_JPEG_SOI = 0xd8,
       G4_JPEG_EOI = 0xd9,
       G4_JPEG_SOS = 0xda,  /* a scan */
       G4_JPEG_DQT = 0xdb,  /* quantisation tables */
       G4_JPEG_DRI = 0xdd,  /* restart interval */
       G4_JPEG_APP0 = 0xe0, /* JFIF */
       G4_JPEG_APP1 = 0xe1, /* EXIF */
       G4_JPEG_APP14 = 0xee /* Adobe */
};

typedef struct {
    uint16_t fast[512]; /* symbol << 4 | length, by the next 9 bits; 0: a longer code */
    int32_t last[17];   /* largest code of each length, -1: none */
    int32_t offset[17]; /* index of a code's symbol = code + offset[length] */
    uint8_t symbol[256];
    int present;
} g4_jpeg_huff;

typedef struct {
    int id, h, v, tq;              /* sampling factors, quantisation table */
    int blocks_w, blocks_h;        /* blocks with pixels in them */
    int stored_w, stored_h;        /* the same, rounded up to whole MCUs */
    int width, height;             /* samples: libjpeg's downsampled_width and _height */
    int dc_table, ac_table, pred;  /* of the present scan */
    int seen, has_quant;           /* its DC was in some scan; quant is set */
    uint16_t quant[G4_JPEG_BLOCK]; /* as it was when the component's first scan began */
    uint8_t *plane;                /* (8 stored_h, 8 stored_w) */
    int16_t *coef;                 /* (stored_h, stored_w, 64) in natural order, progressive only */
} g4_jpeg_comp;

typedef struct {
    const g4_media_limits *m;
    const uint8_t *data;
    size_t size, pos;
    int w, h, n_comps, progressive, max_h, max_v, mcus_w, mcus_h;
    g4_jpeg_comp comp[4];
    uint16_t quant[4][G4_JPEG_BLOCK];
    int has_quant[4];
    g4_jpeg_huff *huff;               /* (2, 4): DC, AC */
    uint32_t restart;                 /* MCUs between restart markers, 0: none */
    int has_jfif, adobe, orientation; /* adobe: colour transform of its marker, -1 without one */
    int scans;
    /* the scan being read: components in order, coefficients ss to se, their bits ah (before) and al */
    int n_scan, order[4], ss, se, ah, al;
    uint32_t eob_run; /* blocks that end at once */
    uint64_t bits;    /* n_bits of them, the next one highest */
    int n_bits;
    int invented;  /* zero bytes put in where the data had ended */
    int only_size; /* stop at the first scan, and take no memory for pixels */
    g4_pace pace;
} g4_jpeg;

static const uint8_t g4_zigzag[G4_JPEG_BLOCK] = { 0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                                                  12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                                                  35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                                                  58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63 };

/* ---- Bits of a scan ------------------------------------------------------------------------- */

static void g4_jpeg_fill(g4_jpeg *j)
{
    while (j->n_bits <= 56) {
        uint64_t byte = 0;
        if (j->pos < j->size && j->data[j->pos] != 0xff) {
            byte = j->data[j->pos++];
        } else {
            while (j->size - j->pos >= 2 && j->data[j->pos + 1] == 0xff && !g4_pace_ends(&j->pace, 1))
                j->pos++; /* fill bytes */
            if (j->size - j->pos >= 2 && j->data[j->pos + 1] == 0) {
                byte = 0xff;
                j->pos += 2;
            } else {
                j->invented++; /* a marker, or the end of the file: stay before it */
            }
        }
        j->bits = j->bits << 8 | byte;
        j->n_bits += 8;
    }
}

static int g4_jpeg_get(g4_jpeg *j, int n) /* n <= 16 */
{
    if (j->n_bits < n) g4_jpeg_fill(j);
    j->n_bits -= n;
    return (int)(j->bits >> j->n_bits & ((UINT64_C(1) << n) - 1));
}

/* Were bits used that the scan does not have? */
static int g4_jpeg_overrun(const g4_jpeg *j) { return j->invented * 8 > j->n_bits; }

static int g4_jpeg_symbol(g4_jpeg *j, const g4_jpeg_huff *h) /* -1: there is no such code */
{
    if (j->n_bits < 16) g4_jpeg_fill(j);
    const unsigned entry = h->fast[j->bits >> (j->n_bits - 9) & 511];
    if (entry) {
        j->n_bits -= (int)(entry & 15);
        return (int)(entry >> 4);
    }
    for (int l = 10; l <= 16; l++) {
        const int32_t code = (int32_t)(j->bits >> (j->n_bits - l) & ((1u << l) - 1));
        if (code <= h->last[l]) {
            j->n_bits -= l;
            return h->symbol[(code + h->offset[l]) & 255];
        }
    }
    return -1;
}

/* A number of s <= 15 bits, the first half of whose range is negative (T.81, F.2.2.1). */
static int g4_jpeg_signed(g4_jpeg *j, int s)
{
    if (s == 0) return 0;
    const int v = g4_jpeg_get(j, s);
    return v < 1 << (s - 1) ? v - (1 << s) + 1 : v;
}

/* Move to the next marker and return its code, or -1 at the end of the file or when the call is halted. */
static int g4_jpeg_marker(g4_jpeg *j)
{
    for (;;) {
        while (j->pos < j->size && j->data[j->pos] != 0xff && !g4_pace_ends(&j->pace, 1)) j->pos++;
        while (j->pos < j->size && j->data[j->pos] == 0xff && !g4_pace_ends(&j->pace, 1)) j->pos++;
        if (j->pos >= j->size || g4_pace_ends(&j->pace, 1)) return -1;
        const int code = j->data[j->pos++];
        if (code) return code;
    }
}

/* ---- Tables --------------------------------------------------------------------------------- */

/* Codes of lengths 1 to 16: count[l] of each, whose symbols are in h already. */
static g4_status g4_jpeg_huff_build(g4_jpeg_huff *h, const uint8_t *count, int name, g4_error *err)
{
    int32_t code = 0, index = 0;
    for (int l = 1; l <= 16; l++, code <<= 1) {
        h->offset[l] = index - code;
        for (int i = 0; i < count[l]; i++, code++, index++) {
            if (code >= 1 << l)
                return g4_fail(err, G4_ERR_FORMAT, "JPEG: Huffman table 0x%02x has too many codes", name);
            if (name < 16 && h->symbol[index] > 15)
                return g4_fail(err, G4_ERR_FORMAT, "JPEG: DC size %d, expected at most 15", h->symbol[index]);
            for (int rest = 0; l <= 9 && rest < 1 << (9 - l); rest++)
                h->fast[code << (9 - l) | rest] = (uint16_t)(h->symbol[index] << 4 | l);
        }
        h->last[l] = count[l] ? code - 1 : -1;
    }
    h->present = 1;
    return G4_OK;
}

/* DHT: tables of a name (class << 4 | index), 16 counts and the symbols. */
static g4_status g4_jpeg_huff_tables(g4_jpeg *j, const uint8_t *p, size_t n, g4_error *err)
{
    while (n > 0) {
        if (n < 17) return g4_fail(err, G4_ERR_FORMAT, "JPEG: Huffman table of %zu bytes, expected 17 or more", n);
        size_t total = 0;
        for (int l = 1; l <= 16; l++) total += p[l];
        if (p[0] & 0xec || total > 256 || total > n - 17)
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: Huffman table 0x%02x of %zu codes in %zu bytes", p[0], total, n);
        g4_jpeg_huff *h = &j->huff[(p[0] >> 4) * 4 + (p[0] & 3)];
        memset(h, 0, sizeof *h);
        memcpy(h->symbol, p + 17, total);
        const g4_status s = g4_jpeg_huff_build(h, p, p[0], err);
        if (s) return s;
        p += 17 + total;
        n -= 17 + total;
    }
    return G4_OK;
}

/* DQT: tables of a name (wide << 4 | index) and 64 numbers in zigzag order. */
static g4_status g4_jpeg_quant_tables(g4_jpeg *j, const uint8_t *p, size_t n, g4_error *err)
{
    while (n > 0) {
        const size_t wide = p[0] >> 4 ? 2 : 1, size = 1 + G4_JPEG_BLOCK * wide;
        if (p[0] & 0xec || n < size)
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: quantisation table 0x%02x in %zu bytes", p[0], n);
        for (size_t i = 0; i < G4_JPEG_BLOCK; i++)
            j->quant[p[0] & 3][g4_zigzag[i]] = (uint16_t)(wide == 2 ? g4_be16(p + 1 + 2 * i) : p[1 + i]);
        j->has_quant[p[0] & 3] = 1;
        p += size;
        n -= size;
    }
    return G4_OK;
}

/* ---- The frame ------------------------------------------------------------------------------ */

/* The components of a frame header: id, factors and table of each in three bytes. */
static g4_status g4_jpeg_factors(g4_jpeg *j, const uint8_t *p, int n, g4_error *err)
{
    j->max_h = j->max_v = 1;
    for (int i = 0; i < n; i++, p += 3) {
        g4_jpeg_comp *c = &j->comp[i];
        c->id = p[0];
        c->h = p[1] >> 4;
        c->v = p[1] & 15;
        c->tq = p[2];
        if (c->h < 1 || c->h > 4 || c->v < 1 || c->v > 4 || c->tq > 3)
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: component %d samples %d x %d, quantisation table %d", i, c->h,
                           c->v, c->tq);
        j->max_h = g4_max_int(j->max_h, c->h);
        j->max_v = g4_max_int(j->max_v, c->v);
    }
    return G4_OK;
}

static int g4_jpeg_div_up(int a, int b) { return (a + b - 1) / b; }

/* Sizes in samples and blocks, once all factors are known. */
static g4_status g4_jpeg_layout(g4_jpeg *j, int n, g4_error *err)
{
    uint64_t blocks = 0;
    j->mcus_w = g4_jpeg_div_up(j->w, 8 * j->max_h);
    j->mcus_h = g4_jpeg_div_up(j->h, 8 * j->max_v);
    for (int i = 0; i < n; i++) {
        g4_jpeg_comp *c = &j->comp[i];
        if (j->max_h % c->h || j->max_v % c->v)
            return g4_fail(err, G4_ERR_UNSUPPORTED, "JPEG: component %d samples %d x %d of %d x %d: not a whole ratio",
                           i, c->h, c->v, j->max_h, j->max_v);
        c->width = g4_jpeg_div_up(j->w * c->h, j->max_h);
        c->height = g4_jpeg_div_up(j->h * c->v, j->max_v);
        c->blocks_w = g4_jpeg_div_up(c->width, 8);
        c->blocks_h = g4_jpeg_div_up(c->height, 8);
        c->stored_w = j->mcus_w * c->h;
        c->stored_h = j->mcus_h * c->v;
        blocks += (uint64_t)c->blocks_w * (uint64_t)c->blocks_h;
    }
    if (blocks / 8 > j->size) /* a block takes one bit or more */
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: truncated: %zu bytes cannot hold %d x %d pixels", j->size, j->w,
                       j->h);
    return G4_OK;
}

static g4_status g4_jpeg_planes(g4_jpeg *j, int n, g4_error *err)
{
    for (int i = 0; i < n; i++) {
        g4_jpeg_comp *c = &j->comp[i];
        const size_t n_blocks = (size_t)c->stored_w * (size_t)c->stored_h;
        c->plane = g4_alloc(j->m->a, n_blocks, G4_JPEG_BLOCK);
        if (j->progressive) c->coef = g4_alloc(j->m->a, n_blocks, G4_JPEG_BLOCK * sizeof *c->coef);
        if (!c->plane || (j->progressive && !c->coef))
            return g4_fail(err, G4_ERR_MEMORY, "JPEG: %d x %d pixels: out of memory", j->w, j->h);
    }
    return G4_OK;
}

static g4_status g4_jpeg_frame(g4_jpeg *j, const uint8_t *p, size_t n, g4_error *err) /* SOF0, SOF1, SOF2 */
{
    if (j->n_comps) return g4_fail(err, G4_ERR_FORMAT, "JPEG: a second frame header");
    if (n < 6 || n != 6 + 3 * (size_t)p[5]) return g4_fail(err, G4_ERR_FORMAT, "JPEG: frame header of %zu bytes", n);
    if (p[0] != 8) return g4_fail(err, G4_ERR_UNSUPPORTED, "JPEG: %d bits a sample, only 8 can be read", p[0]);
    const uint32_t h = g4_be16(p + 1), w = g4_be16(p + 3);
    const int n_comps = p[5];
    if (w == 0 || h == 0) return g4_fail(err, G4_ERR_FORMAT, "JPEG: size %u x %u", (unsigned)w, (unsigned)h);
    if (n_comps != 1 && n_comps != 3 && n_comps != 4)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "JPEG: %d components, expected 1, 3 or 4", n_comps);
    j->w = (int)w;
    j->h = (int)h;
    g4_status s = g4_pixels_check(j->m, "JPEG", w, h, err);
    if (!s) s = g4_jpeg_factors(j, p + 6, n_comps, err);
    if (!s) s = g4_jpeg_layout(j, n_comps, err);
    if (!s && !j->only_size) s = g4_jpeg_planes(j, n_comps, err);
    if (!s) j->n_comps = n_comps;
    return s;
}

/* ---- Inverse DCT ---------------------------------------------------------------------------- */

/* One direction of the 8-point inverse DCT of jidctint.c: 13 fraction bits, results rounded to `shift` bits less. In
 * and out step by `step`. Unsigned, so that the sums of hostile coefficients wrap instead of being undefined. */
static void g4_idct_8(int32_t *v, size_t step, int shift)
{
    uint32_t x[8];
    for (size_t i = 0; i < 8; i++) x[i] = (uint32_t)v[i * step];
    uint32_t z1 = (x[2] + x[6]) * 4433u;
    uint32_t t2 = z1 - x[6] * 15137u, t3 = z1 + x[2] * 6270u;
    uint32_t t0 = (x[0] + x[4]) << 13, t1 = (x[0] - x[4]) << 13;
    uint32_t e0 = t0 + t3, e3 = t0 - t3, e1 = t1 + t2, e2 = t1 - t2;
    z1 = x[7] + x[1];
    uint32_t z2 = x[5] + x[3], z3 = x[7] + x[3], z4 = x[5] + x[1], z5 = (z3 + z4) * 9633u;
    z1 *= 7373u;
    z2 *= 20995u;
    z3 = z5 - z3 * 16069u;
    z4 = z5 - z4 * 3196u;
    t0 = x[7] * 2446u - z1 + z3;
    t1 = x[5] * 16819u - z2 + z4;
    t2 = x[3] * 25172u - z2 + z3;
    t3 = x[1] * 12299u - z1 + z4;
    uint32_t half = 1u << (shift - 1);
    v[0] = (int32_t)(e0 + t3 + half) >> shift;
    v[step] = (int32_t)(e1 + t2 + half) >> shift;
    v[2 * step] = (int32_t)(e2 + t1 + half) >> shift;
    v[3 * step] = (int32_t)(e3 + t0 + half) >> shift;
    v[4 * step] = (int32_t)(e3 - t0 + half) >> shift;
    v[5 * step] = (int32_t)(e2 - t1 + half) >> shift;
    v[6 * step] = (int32_t)(e1 - t2 + half) >> shift;
    v[7 * step] = (int32_t)(e0 - t3 + half) >> shift;
}

/* coef (64), natural order -> 8 x 8 samples. dc_only: all others are zero. */
static void g4_jpeg_idct(const int16_t *coef, const uint16_t *quant, int dc_only, uint8_t *out, size_t stride)
{
    if (dc_only) {
        const uint8_t level = g4_clamp_u8((((int16_t)(uint32_t)(coef[0] * (int32_t)quant[0]) + 4) >> 3) + 128);
        for (size_t y = 0; y < 8; y++) memset(out + y * stride, level, 8);
        return;
    }
    int32_t v[G4_JPEG_BLOCK];
    for (int i = 0; i < G4_JPEG_BLOCK; i++)
        v[i] = (int16_t)(uint32_t)(coef[i] * (int32_t)quant[i]); /* 16 bits, as libjpeg-turbo's vector code */
    for (size_t x = 0; x < 8; x++) g4_idct_8(v + x, 8, 13 - 2);  /* columns keep 2 fraction bits */
    for (size_t y = 0; y < 8; y++) {
        g4_idct_8(v + 8 * y, 1, 13 + 2 + 3);
        for (size_t x = 0; x < 8; x++) out[y * stride + x] = g4_clamp_u8(v[8 * y + x] + 128);
    }
}

/* The samples of the block at column bx, row by. */
static void g4_jpeg_put_block(const g4_jpeg_comp *c, int bx, int by, const int16_t *coef, int dc_only)
{
    const size_t stride = (size_t)c->stored_w * 8;
    g4_jpeg_idct(coef, c->quant, dc_only, c->plane + (size_t)by * 8 * stride + (size_t)bx * 8, stride);
}

/* Where a progressive file keeps the coefficients of that block. */
static int16_t *g4_jpeg_coefs(const g4_jpeg_comp *c, int bx, int by)
{
    return c->coef + G4_JPEG_BLOCK * ((size_t)by * (size_t)c->stored_w + (size_t)bx);
}

/* ---- Blocks ---------------------------------------------------------------------------------
 *
 * Each reader returns NULL or what is wrong. */

static const char g4_jpeg_bad_dc[] = "bad DC code";
static const char g4_jpeg_bad_ac[] = "bad AC code";
static const char g4_jpeg_runs_over[] = "coefficients run over the block";

/* The DC coefficient as a difference to the block before. Nonzero: there is no such code. */
static int g4_jpeg_predict(g4_jpeg *j, g4_jpeg_comp *c)
{
    const int s = g4_jpeg_symbol(j, &j->huff[c->dc_table]);
    if (s < 0) return 1;
    c->pred = (int16_t)(uint32_t)(c->pred + g4_jpeg_signed(j, s));
    return 0;
}

/* All coefficients of a block of a sequential file; b is zero on entry. */
static const char *g4_jpeg_sequential(g4_jpeg *j, g4_jpeg_comp *c, int16_t *b, int *dc_only)
{
    const g4_jpeg_huff *ac = &j->huff[4 + c->ac_table];
    if (g4_jpeg_predict(j, c)) return g4_jpeg_bad_dc;
    b[0] = (int16_t)c->pred;
    *dc_only = 1;
    for (int k = 1; k < G4_JPEG_BLOCK; k++) {
        const int symbol = g4_jpeg_symbol(j, ac); /* zeros before, size */
        if (symbol < 0) return g4_jpeg_bad_ac;
        const int size = symbol & 15;
        if (size == 0) {
            if (symbol != 0xf0) break; /* the end of the block, else 16 zeros */
            k += 15;
            continue;
        }
        k += symbol >> 4;
        if (k >= G4_JPEG_BLOCK) return g4_jpeg_runs_over;
        b[g4_zigzag[k]] = (int16_t)g4_jpeg_signed(j, size);
        *dc_only = 0;
    }
    return NULL;
}

static const char *g4_jpeg_dc(g4_jpeg *j, g4_jpeg_comp *c, int16_t *b) /* progressive, first and refining */
{
    if (j->ah) {
        if (g4_jpeg_get(j, 1)) b[0] = (int16_t)(b[0] | 1 << j->al);
        return NULL;
    }
    if (g4_jpeg_predict(j, c)) return g4_jpeg_bad_dc;
    b[0] = (int16_t)(uint32_t)(c->pred * (1 << j->al));
    return NULL;
}

static const char *g4_jpeg_ac_first(g4_jpeg *j, const g4_jpeg_comp *c, int16_t *b)
{
    const g4_jpeg_huff *ac = &j->huff[4 + c->ac_table];
    if (j->eob_run > 0) {
        j->eob_run--;
        return NULL;
    }
    for (int k = j->ss; k <= j->se; k++) {
        const int symbol = g4_jpeg_symbol(j, ac), run = symbol >> 4, size = symbol & 15;
        if (symbol < 0) return g4_jpeg_bad_ac;
        if (size == 0) {
            if (run < 15) {
                j->eob_run = (1u << run) - 1 + (uint32_t)g4_jpeg_get(j, run);
                break;
            }
            k += 15;
            continue;
        }
        k += run;
        if (k >= G4_JPEG_BLOCK) return g4_jpeg_runs_over;
        b[g4_zigzag[k]] = (int16_t)(uint32_t)(g4_jpeg_signed(j, size) * (1 << j->al));
    }
    return NULL;
}

/* From coefficient k on, pass `zeros` of those that are zero, refining the others by one more bit. Returns where the
 * next zero is, or se + 1. */
static int g4_jpeg_refine(g4_jpeg *j, int16_t *b, int k, int zeros)
{
    const int bit = 1 << j->al;
    for (; k <= j->se; k++) {
        int16_t *coef = b + g4_zigzag[k];
        if (*coef == 0) {
            if (zeros-- == 0) break;
        } else if (g4_jpeg_get(j, 1) && !(*coef & bit)) {
            *coef = (int16_t)(*coef >= 0 ? *coef + bit : *coef - bit);
        }
    }
    return k;
}

static const char *g4_jpeg_ac_refine(g4_jpeg *j, const g4_jpeg_comp *c, int16_t *b)
{
    const g4_jpeg_huff *ac = &j->huff[4 + c->ac_table];
    int k = j->ss;
    while (j->eob_run == 0 && k <= j->se) {
        const int symbol = g4_jpeg_symbol(j, ac), run = symbol >> 4, size = symbol & 15;
        int value = 0;
        if (symbol < 0) return g4_jpeg_bad_ac;
        if (size > 1) return "a refinement of more than one bit";
        if (size) {
            value = g4_jpeg_get(j, 1) ? 1 << j->al : -(1 << j->al);
        } else if (run < 15) {
            j->eob_run = (1u << run) + (uint32_t)g4_jpeg_get(j, run); /* this block included */
            break;
        }
        k = g4_jpeg_refine(j, b, k, run);
        if (value) {
            if (k > j->se) return g4_jpeg_runs_over;
            b[g4_zigzag[k]] = (int16_t)value;
        }
        k++;
    }
    if (j->eob_run > 0) {
        g4_jpeg_refine(j, b, k, G4_JPEG_BLOCK);
        j->eob_run--;
    }
    return NULL;
}

static const char *g4_jpeg_block(g4_jpeg *j, g4_jpeg_comp *c, int bx, int by) /* the one at column bx, row by */
{
    if (j->progressive) {
        int16_t *b = g4_jpeg_coefs(c, bx, by);
        if (j->ss == 0) return g4_jpeg_dc(j, c, b);
        return j->ah ? g4_jpeg_ac_refine(j, c, b) : g4_jpeg_ac_first(j, c, b);
    }
    int16_t b[G4_JPEG_BLOCK] = { 0 };
    int dc_only;
    const char *wrong = g4_jpeg_sequential(j, c, b, &dc_only);
    if (!wrong) g4_jpeg_put_block(c, bx, by, b, dc_only);
    return wrong;
}

/* ---- Scans ---------------------------------------------------------------------------------- */

/* The component that a scan header names as its i-th, with its tables; -1 when it is unknown or named twice. */
static int g4_jpeg_scan_index(const g4_jpeg *j, int id, int i)
{
    int k = 0;
    while (k < j->n_comps && j->comp[k].id != id) k++;
    if (k == j->n_comps) return -1;
    for (int before = 0; before < i; before++)
        if (j->order[before] == k) return -1;
    return k;
}

/* Tables of component k in the present scan, which reads DC and AC coefficients or one of both. */
static g4_status g4_jpeg_scan_tables(g4_jpeg *j, int k, int tables, int dc, int ac, g4_error *err)
{
    g4_jpeg_comp *c = &j->comp[k];
    c->dc_table = tables >> 4;
    c->ac_table = tables & 15;
    if (c->dc_table > 3 || c->ac_table > 3 || (dc && !j->ah && !j->huff[c->dc_table].present) ||
        (ac && !j->huff[4 + c->ac_table].present))
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: the scan uses Huffman tables %d and %d, which are not there",
                       c->dc_table, c->ac_table);
    if (!c->has_quant) {
        if (!j->has_quant[c->tq])
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: component %d uses quantisation table %d, which is not there", k,
                           c->tq);
        memcpy(c->quant, j->quant[c->tq], sizeof c->quant);
        c->has_quant = 1;
    }
    if (dc) c->seen = 1;
    return G4_OK;
}

/* Coefficients and bits of the scan from the last three bytes of its header. */
static g4_status g4_jpeg_scan_range(g4_jpeg *j, const uint8_t *p, g4_error *err)
{
    j->ss = p[0];
    j->se = p[1];
    j->ah = p[2] >> 4;
    j->al = p[2] & 15;
    if (j->progressive && (j->se > 63 || j->ss > j->se || (j->ss == 0 && j->se != 0) || (j->ss > 0 && j->n_scan != 1) ||
                           j->al > 13 || (j->ah != 0 && j->ah != j->al + 1)))
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: scan of coefficients %d..%d, bits %d..%d of %d components", j->ss,
                       j->se, j->ah, j->al, j->n_scan);
    return G4_OK;
}

static g4_status g4_jpeg_scan_header(g4_jpeg *j, const uint8_t *p, size_t n, g4_error *err) /* SOS */
{
    if (!j->n_comps) return g4_fail(err, G4_ERR_FORMAT, "JPEG: a scan before the frame header");
    if (n < 1 || p[0] < 1 || p[0] > 4 || n != 4 + 2 * (size_t)p[0])
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: scan header of %zu bytes", n);
    if (++j->scans > G4_JPEG_SCANS_MAX)
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: more than %d scans", G4_JPEG_SCANS_MAX);
    j->n_scan = p[0];
    g4_status s = g4_jpeg_scan_range(j, p + 1 + 2 * j->n_scan, err);
    if (s) return s;
    const int dc = !j->progressive || j->ss == 0, ac = !j->progressive || j->ss > 0;
    int blocks = 0; /* of an MCU */
    for (int i = 0; i < j->n_scan; i++) {
        const uint8_t *entry = p + 1 + 2 * i;
        const int k = g4_jpeg_scan_index(j, entry[0], i);
        if (k < 0)
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: the scan names component %d, which is unknown or named twice",
                           entry[0]);
        j->order[i] = k;
        blocks += j->comp[k].h * j->comp[k].v;
        s = g4_jpeg_scan_tables(j, k, entry[1], dc, ac, err);
        if (s) return s;
    }
    if (j->n_scan > 1 && blocks > 10)
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: %d blocks in one unit, expected at most 10", blocks);
    return G4_OK;
}

/* What holds at the start of a scan and behind each restart marker. */
static void g4_jpeg_reset(g4_jpeg *j)
{
    j->bits = 0;
    j->n_bits = j->invented = 0;
    j->eob_run = 0;
    for (int i = 0; i < 4; i++) j->comp[i].pred = 0;
}

static g4_status g4_jpeg_restart(g4_jpeg *j, int index, g4_error *err)
{
    const int code = g4_jpeg_overrun(j) ? -1 : g4_jpeg_marker(j);
    if (code != G4_JPEG_RST0 + index)
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: byte %zu: expected restart marker %d", j->pos, index);
    g4_jpeg_reset(j);
    return G4_OK;
}

/* The MCU at column mx, row my: a block when the scan has one component, else some of each. */
static const char *g4_jpeg_mcu(g4_jpeg *j, int mx, int my)
{
    if (j->n_scan == 1) return g4_jpeg_block(j, &j->comp[j->order[0]], mx, my);
    for (int i = 0; i < j->n_scan; i++) {
        g4_jpeg_comp *c = &j->comp[j->order[i]];
        for (int b = 0; b < c->h * c->v; b++) {
            const char *wrong = g4_jpeg_block(j, c, mx * c->h + b % c->h, my * c->v + b / c->h);
            if (wrong) return wrong;
        }
    }
    return NULL;
}

static g4_status g4_jpeg_scan(g4_jpeg *j, g4_error *err)
{
    const g4_jpeg_comp *only = &j->comp[j->order[0]];
    const int mw = j->n_scan == 1 ? only->blocks_w : j->mcus_w, mh = j->n_scan == 1 ? only->blocks_h : j->mcus_h;
    uint32_t left = j->restart;
    int restarts = 0;
    g4_jpeg_reset(j);
    for (int my = 0; my < mh; my++) {
        for (int mx = 0; mx < mw; mx++) {
            if (j->restart && left == 0) {
                const g4_status s = g4_jpeg_restart(j, restarts++ & 7, err);
                if (s) return s;
                left = j->restart;
            }
            left--;
            if (g4_pace_ends(&j->pace, G4_JPEG_MCU_STEPS)) return g4_halt_check(j->m->halt, err);
            const char *wrong = g4_jpeg_mcu(j, mx, my);
            if (!wrong && g4_jpeg_overrun(j)) wrong = j->pos >= j->size ? "truncated" : "the data ends early";
            if (wrong)
                return g4_fail(err, G4_ERR_FORMAT, "JPEG: scan %d, unit %d of row %d of %d, before byte %zu: %s",
                               j->scans, mx, my, mh, j->pos, wrong);
        }
    }
    return G4_OK;
}

/* The samples of all blocks that a progressive file has kept. */
static g4_status g4_jpeg_transform(g4_jpeg *j, g4_error *err)
{
    for (int i = 0; i < j->n_comps; i++) {
        const g4_jpeg_comp *c = &j->comp[i];
        for (int by = 0; by < c->blocks_h; by++) {
            if (g4_pace_ends(&j->pace, (size_t)c->blocks_w * G4_JPEG_BLOCK)) return g4_halt_check(j->m->halt, err);
            for (int bx = 0; bx < c->blocks_w; bx++) g4_jpeg_put_block(c, bx, by, g4_jpeg_coefs(c, bx, by), 0);
        }
    }
    return G4_OK;
}

/* ---- Upsampling -----------------------------------------------------------------------------
 *
 * One row of samples to twice as many columns (h2) or between two rows (v2), weighted 3 to 1 towards the nearer sample:
 * jdsample.c's fancy upsampling, with its alternating roundings. */

static void g4_jpeg_h1v2(const uint8_t *row, const uint8_t *near, int n, int bias, uint8_t *out)
{
    for (int x = 0; x < n; x++) out[x] = (uint8_t)((row[x] * 3 + near[x] + bias) >> 2);
}

static void g4_jpeg_h2v1(const uint8_t *row, int width, uint8_t *out) /* width > 2 */
{
    const int last = width - 1;
    out[0] = row[0];
    out[1] = (uint8_t)((row[0] * 3 + row[1] + 2) >> 2);
    for (int x = 1; x < last; x++) {
        out[2 * x] = (uint8_t)((row[x] * 3 + row[x - 1] + 1) >> 2);
        out[2 * x + 1] = (uint8_t)((row[x] * 3 + row[x + 1] + 2) >> 2);
    }
    out[2 * last] = (uint8_t)((row[last] * 3 + row[last - 1] + 1) >> 2);
    out[2 * last + 1] = row[last];
}

static void g4_jpeg_h2v2(const uint8_t *row, const uint8_t *near, int width, uint8_t *out) /* width > 2 */
{
    const int last = width - 1;
    int before, here = row[0] * 3 + near[0], next = row[1] * 3 + near[1]; /* sums of columns */
    out[0] = (uint8_t)((here * 4 + 8) >> 4);
    out[1] = (uint8_t)((here * 3 + next + 7) >> 4);
    for (int x = 1; x < last; x++) {
        before = here;
        here = next;
        next = row[x + 1] * 3 + near[x + 1];
        out[2 * x] = (uint8_t)((here * 3 + before + 8) >> 4);
        out[2 * x + 1] = (uint8_t)((here * 3 + next + 7) >> 4);
    }
    out[2 * last] = (uint8_t)((next * 3 + here + 8) >> 4);
    out[2 * last + 1] = (uint8_t)((next * 4 + 7) >> 4);
}

/* Row y of component c, scaled to n output columns. out has room for 2 * width. */
static void g4_jpeg_upsample(const g4_jpeg *j, const g4_jpeg_comp *c, int y, uint8_t *out, int n)
{
    const int by_h = j->max_h / c->h, by_v = j->max_v / c->v, index = y / by_v;
    const size_t stride = (size_t)c->stored_w * 8;
    const uint8_t *row = c->plane + (size_t)index * stride;
    /* beyond the picture the edge row repeats */
    const int near_index = y & 1 ? g4_min_int(index + 1, c->height - 1) : g4_max_int(index - 1, 0);
    const uint8_t *near = c->plane + (size_t)near_index * stride;
    if (by_h == 1 && by_v == 1)
        memcpy(out, row, (size_t)n);
    else if (by_h == 1 && by_v == 2)
        g4_jpeg_h1v2(row, near, n, y & 1 ? 2 : 1, out);
    else if (by_h == 2 && by_v == 1 && c->width > 2)
        g4_jpeg_h2v1(row, c->width, out);
    else if (by_h == 2 && by_v == 2 && c->width > 2)
        g4_jpeg_h2v2(row, near, c->width, out);
    else
        for (int x = 0; x < n; x++) out[x] = row[x / by_h];
}

/* ---- Colours -------------------------------------------------------------------------------- */

typedef enum { G4_JPEG_GREY, G4_JPEG_RGB, G4_JPEG_YCC, G4_JPEG_CMYK, G4_JPEG_YCCK } g4_jpeg_colours;

static g4_jpeg_colours g4_jpeg_guess_colours(const g4_jpeg *j) /* jdapimin.c, default_decompress_parms */
{
    const g4_jpeg_comp *c = j->comp;
    if (j->n_comps == 1) return G4_JPEG_GREY;
    if (j->n_comps == 4) return j->adobe <= 0 ? G4_JPEG_CMYK : G4_JPEG_YCCK;
    if (j->has_jfif) return G4_JPEG_YCC;
    if (j->adobe >= 0) return j->adobe == 0 ? G4_JPEG_RGB : G4_JPEG_YCC;
    return c[0].id == 'R' && c[1].id == 'G' && c[2].id == 'B' ? G4_JPEG_RGB : G4_JPEG_YCC;
}

/* What Cb and Cr add to Y, jdcolor.c's tables: whole levels, and those of green with 16 fraction bits. */
typedef struct {
    int32_t cr_r[256], cb_b[256], cr_g[256], cb_g[256];
} g4_jpeg_ycc;

static void g4_jpeg_ycc_make(g4_jpeg_ycc *t)
{
    for (int i = 0; i < 256; i++) {
        const int32_t x = i - 128;
        t->cr_r[i] = (91881 * x + 32768) >> 16;  /* 1.402   */
        t->cb_b[i] = (116130 * x + 32768) >> 16; /* 1.772   */
        t->cr_g[i] = -46802 * x;                 /* 0.71414 */
        t->cb_g[i] = -22554 * x + 32768;         /* 0.34414 */
    }
}

/* Pillow's product of two levels, rounded: a * b / 255. */
static inline int g4_mul_255(int a, int b)
{
    const int t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

/* n pixels of the rows p of all components to RGB. CMYK is stored inverted, as everybody does since Adobe. */
static void g4_jpeg_convert(g4_jpeg_colours colours, const g4_jpeg_ycc *t, const uint8_t *const p[4], int n,
                            uint8_t *dst)
{
    for (int x = 0; x < n; x++, dst += 3) {
        int a = p[0][x], b = p[1][x], c = p[2][x];
        if (colours == G4_JPEG_GREY) {
            b = c = a;
        } else if (colours == G4_JPEG_YCC || colours == G4_JPEG_YCCK) {
            const int r = a + t->cr_r[c], g = a + ((t->cb_g[b] + t->cr_g[c]) >> 16), blue = a + t->cb_b[b];
            const int flip = colours == G4_JPEG_YCCK; /* YCCK holds C = 255 - R, M = 255 - G, Y = 255 - B */
            a = g4_clamp_u8(flip ? 255 - r : r);
            b = g4_clamp_u8(flip ? 255 - g : g);
            c = g4_clamp_u8(flip ? 255 - blue : blue);
        }
        if (colours >= G4_JPEG_CMYK) {
            const int k = p[3][x]; /* 255 - K */
            a = k - g4_mul_255(255 - a, k);
            b = k - g4_mul_255(255 - b, k);
            c = k - g4_mul_255(255 - c, k);
        }
        dst[0] = (uint8_t)a;
        dst[1] = (uint8_t)b;
        dst[2] = (uint8_t)c;
    }
}

static g4_status g4_jpeg_output(g4_jpeg *j, uint8_t *rgb, g4_error *err)
{
    const g4_jpeg_colours colours = g4_jpeg_guess_colours(j);
    const size_t room = (size_t)j->mcus_w * 8 * (size_t)j->max_h + 8;
    uint8_t *rows = g4_alloc(j->m->a, room, 4);
    if (!rows) return g4_fail(err, G4_ERR_MEMORY, "JPEG: out of memory");
    const uint8_t *const p[4] = { rows, rows + room, rows + 2 * room, rows + 3 * room };
    g4_jpeg_ycc ycc;
    g4_jpeg_ycc_make(&ycc);
    int ends = 0;
    for (int y = 0; y < j->h && !ends; y++) {
        for (int i = 0; i < j->n_comps; i++) g4_jpeg_upsample(j, &j->comp[i], y, rows + (size_t)i * room, j->w);
        g4_jpeg_convert(colours, &ycc, p, j->w, rgb + 3 * (size_t)y * (size_t)j->w);
        ends = g4_pace_ends(&j->pace, 4 * (size_t)j->w);
    }
    g4_free(j->m->a, rows);
    return ends ? g4_halt_check(j->m->halt, err) : G4_OK;
}

/* ---- Segments ------------------------------------------------------------------------------- */

/* A segment of that marker with n bytes at p. */
static g4_status g4_jpeg_segment(g4_jpeg *j, int code, const uint8_t *p, size_t n, g4_error *err)
{
    switch (code) {
    case G4_JPEG_DHT: return g4_jpeg_huff_tables(j, p, n, err);
    case G4_JPEG_DQT: return g4_jpeg_quant_tables(j, p, n, err);
    case G4_JPEG_SOF0:
    case G4_JPEG_SOF1:
    case G4_JPEG_SOF2: j->progressive = code == G4_JPEG_SOF2; return g4_jpeg_frame(j, p, n, err);
    case G4_JPEG_DRI:
        if (n != 2) return g4_fail(err, G4_ERR_FORMAT, "JPEG: restart interval of %zu bytes, expected 2", n);
        j->restart = g4_be16(p);
        return G4_OK;
    case G4_JPEG_SOS: {
        const g4_status s = g4_jpeg_scan_header(j, p, n, err);
        return s ? s : g4_jpeg_scan(j, err);
    }
    case G4_JPEG_APP0:
        if (n >= 5 && !memcmp(p, "JFIF", 5)) j->has_jfif = 1;
        return G4_OK;
    case G4_JPEG_APP1:
        if (n >= 6 && !memcmp(p, "Exif\0", 6) && j->orientation == 0)
            j->orientation = g4_exif_orientation(p + 6, n - 6);
        return G4_OK;
    case G4_JPEG_APP14:
        if (n >= 12 && !memcmp(p, "Adobe", 5)) j->adobe = p[11];
        return G4_OK;
    default: break;
    }
    if (code >= G4_JPEG_SOF3 && code <= G4_JPEG_SOF15)
        return g4_fail(err, G4_ERR_UNSUPPORTED,
                       "JPEG: frame type 0x%02x (lossless, hierarchical or arithmetic) cannot be read", code);
    return G4_OK;
}

/* All segments up to the end of the picture. */
static g4_status g4_jpeg_segments(g4_jpeg *j, g4_error *err)
{
    for (;;) {
        const int code = g4_jpeg_marker(j);
        if (g4_halted(j->m->halt)) return g4_halt_check(j->m->halt, err);
        if (code < 0) return g4_fail(err, G4_ERR_FORMAT, "JPEG: truncated: no end marker in %zu bytes", j->size);
        if (code == G4_JPEG_EOI || (code == G4_JPEG_SOS && j->only_size)) return G4_OK;
        if (code == G4_JPEG_TEM || (code >= G4_JPEG_RST0 && code <= G4_JPEG_SOI)) continue; /* these have no length */
        const size_t n = j->size - j->pos >= 2 ? g4_be16(j->data + j->pos) : 0;             /* with its own two bytes */
        if (n < 2 || n > j->size - j->pos)
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: truncated in segment 0x%02x at byte %zu of %zu", code, j->pos,
                           j->size);
        const uint8_t *p = j->data + j->pos + 2;
        j->pos += n;
        const g4_status s = g4_jpeg_segment(j, code, p, n - 2, err);
        if (s) return s;
    }
}

/* All components must have been in some scan. */
static g4_status g4_jpeg_check_whole(const g4_jpeg *j, g4_error *err)
{
    if (!j->n_comps) return g4_fail(err, G4_ERR_FORMAT, "JPEG: no picture in it");
    for (int i = 0; i < j->n_comps; i++)
        if (!j->comp[i].seen) return g4_fail(err, G4_ERR_FORMAT, "JPEG: component %d is in no scan", i);
    return G4_OK;
}

g4_status g4_jpeg_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err)
{
    g4_jpeg j = { .m = m, .data = data, .size = size, .pos = 2, .adobe = -1, .only_size = 1, .pace = { m->halt, 0 } };
    j.huff = g4_alloc(m->a, 8, sizeof *j.huff);
    g4_status s = j.huff ? g4_jpeg_segments(&j, err) : g4_fail(err, G4_ERR_MEMORY, "JPEG: out of memory");
    g4_free(m->a, j.huff);
    if (!s && !j.n_comps) s = g4_fail(err, G4_ERR_FORMAT, "JPEG: no picture in it");
    if (!s) g4_upright_size(j.w, j.h, j.orientation, w, h);
    return s;
}

g4_status g4_jpeg_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err)
{
    g4_jpeg j = { .m = m, .data = data, .size = size, .pos = 2, .adobe = -1, .pace = { m->halt, 0 } };
    memset(out, 0, sizeof *out);
    j.huff = g4_alloc(m->a, 8, sizeof *j.huff);
    g4_status s = j.huff ? g4_jpeg_segments(&j, err) : g4_fail(err, G4_ERR_MEMORY, "JPEG: out of memory");
    if (!s) s = g4_jpeg_check_whole(&j, err);
    if (!s && j.progressive) s = g4_jpeg_transform(&j, err);
    if (!s) s = g4_pixels_alloc(m, "JPEG", (uint64_t)j.w, (uint64_t)j.h, out, err);
    if (!s) s = g4_jpeg_output(&j, out->rgb, err);
    if (!s) s = g4_pixels_orient(m, out, j.orientation, err);
    for (int i = 0; i < 4; i++) {
        g4_free(m->a, j.comp[i].plane);
        g4_free(m->a, j.comp[i].coef);
    }
    g4_free(m->a, j.huff);
    if (s) g4_pixels_free(m, out);
    return s;
}
