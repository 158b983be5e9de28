/* jpeg.c - reading JPEG, baseline and progressive; libjpeg's integer IDCT and fancy upsampling, bit for bit. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>

/* ---- JPEG --------------------------------------------------------------------------------------------
 *
 * In: ITU-T T.81 baseline, extended and progressive Huffman files of 8 bits, grey, YCbCr, RGB, CMYK and YCCK. Out: RGB,
 * equal bit for bit to libjpeg-turbo's defaults (accurate integer IDCT of jidctint.c, fancy upsampling of jdsample.c,
 * colour tables of jdcolor.c), CMYK turned into RGB as Pillow does. A sequential scan is transformed as it is read;
 * progressive ones keep all coefficients until the end. Damage that libjpeg would paint over with a warning is an error
 * here. */

#define G4_JPEG_MAX_SCANS 256 /* a progressive file of many empty scans would otherwise cost hours */

typedef struct {
    uint16_t fast[512]; /* symbol << 4 | length, by the next 9 bits; 0: longer code */
    int32_t last[17];   /* largest code of each length, -1: none */
    int32_t offset[17]; /* index of a code's symbol = code + offset[length] */
    uint8_t symbol[256];
    int present;
} g4_jpeg_huff;

typedef struct {
    int id, h, v, tq;             /* sampling factors, quantisation table */
    int blocks_w, blocks_h;       /* blocks with pixels in them */
    int stored_w, stored_h;       /* the same, rounded up to whole MCUs */
    int width, height;            /* samples: libjpeg's downsampled_width and _height */
    int dc_table, ac_table, pred; /* of the present scan */
    int seen, has_quant;          /* its DC was in some scan; quant is set */
    uint16_t quant[64];           /* as it was when the component's first scan began */
    uint8_t *plane;               /* (8 stored_h, 8 stored_w) */
    int16_t *coef;                /* (stored_h, stored_w, 64) in natural order, progressive only */
} g4_jpeg_comp;

typedef struct {
    const g4_media *m;
    const uint8_t *data;
    size_t size, at;
    int w, h, n_comps, progressive, max_h, max_v, mcus_w, mcus_h;
    g4_jpeg_comp comp[4];
    uint16_t quant[4][64];
    int has_quant[4];
    g4_jpeg_huff *huff;               /* (2, 4): DC, AC */
    uint32_t restart;                 /* MCUs between restart markers, 0: none */
    int has_jfif, adobe, orientation; /* adobe: colour transform of its marker, -1 without one */
    int scans;
    /* the scan being read */
    int n_scan, order[4], ss, se, ah, al;
    uint32_t eob_run;
    uint64_t bits;        /* n_bits of them, the next one highest */
    int n_bits, invented; /* invented: zero bytes put in where the data had ended */
} g4_jpeg;

static const uint8_t g4_zigzag[64] = { 0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                                       12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                                       35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                                       58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63 };

static void g4_jpeg_fill(g4_jpeg *j)
{
    while (j->n_bits <= 56) {
        uint64_t byte = 0;
        if (j->at < j->size && j->data[j->at] != 0xff) {
            byte = j->data[j->at++];
        } else {
            while (j->size - j->at >= 2 && j->data[j->at + 1] == 0xff) j->at++; /* fill bytes */
            if (j->size - j->at >= 2 && j->data[j->at + 1] == 0) {
                byte = 0xff;
                j->at += 2;
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
static int g4_jpeg_overrun(const g4_jpeg *j) { return j->invented * 8 > j->n_bits; }

static int g4_jpeg_symbol(g4_jpeg *j, const g4_jpeg_huff *h) /* -1: no such code */
{
    if (j->n_bits < 16) g4_jpeg_fill(j);
    unsigned e = h->fast[j->bits >> (j->n_bits - 9) & 511];
    if (e) {
        j->n_bits -= (int)(e & 15);
        return (int)(e >> 4);
    }
    for (int l = 10; l <= 16; l++) {
        int32_t code = (int32_t)(j->bits >> (j->n_bits - l) & ((1u << l) - 1));
        if (code <= h->last[l]) {
            j->n_bits -= l;
            return h->symbol[(code + h->offset[l]) & 255];
        }
    }
    return -1;
}

/* A number of s bits whose first half of the range is negative (T.81, F.2.2.1). s <= 15. */
static int g4_jpeg_signed(g4_jpeg *j, int s)
{
    if (s == 0) return 0;
    int v = g4_jpeg_get(j, s);
    return v < 1 << (s - 1) ? v - (1 << s) + 1 : v;
}

static g4_status g4_jpeg_tables(g4_jpeg *j, const uint8_t *p, size_t n, g4_error *err) /* DHT */
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
        int32_t code = 0, k = 0;
        for (int l = 1; l <= 16; l++, code <<= 1) {
            h->offset[l] = k - code;
            for (int i = 0; i < p[l]; i++, code++, k++) {
                if (code >= 1 << l)
                    return g4_fail(err, G4_ERR_FORMAT, "JPEG: Huffman table 0x%02x has too many codes", p[0]);
                if (p[0] < 16 && h->symbol[k] > 15)
                    return g4_fail(err, G4_ERR_FORMAT, "JPEG: DC size %d, expected at most 15", h->symbol[k]);
                for (int r = 0; l <= 9 && r < 1 << (9 - l); r++)
                    h->fast[code << (9 - l) | r] = (uint16_t)(h->symbol[k] << 4 | l);
            }
            h->last[l] = p[l] ? code - 1 : -1;
        }
        h->present = 1;
        p += 17 + total;
        n -= 17 + total;
    }
    return G4_OK;
}

static g4_status g4_jpeg_quant(g4_jpeg *j, const uint8_t *p, size_t n, g4_error *err) /* DQT */
{
    while (n > 0) {
        size_t wide = p[0] >> 4 ? 2 : 1;
        if (p[0] & 0xec || n < 1 + 64 * wide)
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: quantisation table 0x%02x in %zu bytes", p[0], n);
        for (size_t i = 0; i < 64; i++)
            j->quant[p[0] & 3][g4_zigzag[i]] = (uint16_t)(wide == 2 ? g4_be16(p + 1 + 2 * i) : p[1 + i]);
        j->has_quant[p[0] & 3] = 1;
        p += 1 + 64 * wide;
        n -= 1 + 64 * wide;
    }
    return G4_OK;
}

static g4_status g4_jpeg_frame(g4_jpeg *j, const uint8_t *p, size_t n, g4_error *err) /* SOF0, SOF1, SOF2 */
{
    if (j->n_comps) return g4_fail(err, G4_ERR_FORMAT, "JPEG: a second frame header");
    if (n < 6 || n != 6 + 3 * (size_t)p[5]) return g4_fail(err, G4_ERR_FORMAT, "JPEG: frame header of %zu bytes", n);
    if (p[0] != 8) return g4_fail(err, G4_ERR_UNSUPPORTED, "JPEG: %d bits a sample, only 8 can be read", p[0]);
    uint32_t h = g4_be16(p + 1), w = g4_be16(p + 3);
    int comps = p[5];
    if (w == 0 || h == 0) return g4_fail(err, G4_ERR_FORMAT, "JPEG: size %u x %u", (unsigned)w, (unsigned)h);
    if (comps != 1 && comps != 3 && comps != 4)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "JPEG: %d components, expected 1, 3 or 4", comps);
    if ((uint64_t)w * h > j->m->max_pixels)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "JPEG: %u x %u pixels are more than the limit of %" PRIu64, (unsigned)w,
                       (unsigned)h, j->m->max_pixels);
    j->w = (int)w;
    j->h = (int)h;
    j->max_h = j->max_v = 1;
    for (int i = 0; i < comps; i++) {
        g4_jpeg_comp *c = &j->comp[i];
        c->id = p[6 + 3 * i];
        c->h = p[7 + 3 * i] >> 4;
        c->v = p[7 + 3 * i] & 15;
        c->tq = p[8 + 3 * i];
        if (c->h < 1 || c->h > 4 || c->v < 1 || c->v > 4 || c->tq > 3)
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: component %d samples %d x %d, quantisation table %d", i, c->h,
                           c->v, c->tq);
        j->max_h = g4_max_int(j->max_h, c->h);
        j->max_v = g4_max_int(j->max_v, c->v);
    }
    j->mcus_w = (j->w + 8 * j->max_h - 1) / (8 * j->max_h);
    j->mcus_h = (j->h + 8 * j->max_v - 1) / (8 * j->max_v);
    uint64_t blocks = 0;
    for (int i = 0; i < comps; i++) {
        g4_jpeg_comp *c = &j->comp[i];
        if (j->max_h % c->h || j->max_v % c->v)
            return g4_fail(err, G4_ERR_UNSUPPORTED, "JPEG: component %d samples %d x %d of %d x %d: not a whole ratio",
                           i, c->h, c->v, j->max_h, j->max_v);
        c->width = (j->w * c->h + j->max_h - 1) / j->max_h;
        c->height = (j->h * c->v + j->max_v - 1) / j->max_v;
        c->blocks_w = (c->width + 7) / 8;
        c->blocks_h = (c->height + 7) / 8;
        c->stored_w = j->mcus_w * c->h;
        c->stored_h = j->mcus_h * c->v;
        blocks += (uint64_t)c->blocks_w * (uint64_t)c->blocks_h;
    }
    if (blocks / 8 > j->size) /* a block takes one bit or more */
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: truncated: %zu bytes cannot hold %u x %u pixels", j->size,
                       (unsigned)w, (unsigned)h);
    for (int i = 0; i < comps; i++) {
        g4_jpeg_comp *c = &j->comp[i];
        size_t n_blocks = (size_t)c->stored_w * (size_t)c->stored_h;
        c->plane = g4_alloc(j->m->a, n_blocks, 64);
        if (j->progressive) c->coef = g4_alloc(j->m->a, n_blocks, 64 * sizeof *c->coef);
        if (!c->plane || (j->progressive && !c->coef))
            return g4_fail(err, G4_ERR_MEMORY, "JPEG: %u x %u pixels: out of memory", (unsigned)w, (unsigned)h);
    }
    j->n_comps = comps;
    return G4_OK;
}

/* One direction of the 8-point inverse DCT of jidctint.c: 13 fraction bits, results rounded down to the given shift. in
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
    int32_t v[64];
    if (dc_only) {
        uint8_t level = g4_clamp_u8((((int16_t)(uint32_t)(coef[0] * (int32_t)quant[0]) + 4) >> 3) + 128);
        for (size_t y = 0; y < 8; y++) memset(out + y * stride, level, 8);
        return;
    }
    for (int i = 0; i < 64; i++)
        v[i] = (int16_t)(uint32_t)(coef[i] * (int32_t)quant[i]); /* 16 bits, as libjpeg-turbo's vector code */
    for (size_t x = 0; x < 8; x++) g4_idct_8(v + x, 8, 13 - 2);  /* columns keep 2 fraction bits */
    for (size_t y = 0; y < 8; y++) {
        g4_idct_8(v + 8 * y, 1, 13 + 2 + 3);
        for (size_t x = 0; x < 8; x++) out[y * stride + x] = g4_clamp_u8(v[8 * y + x] + 128);
    }
}

/* The block readers return NULL or what is wrong. */
static const char *g4_jpeg_block(g4_jpeg *j, g4_jpeg_comp *c, int16_t *b,
                                 int *dc_only) /* sequential: b is zero on entry */
{
    int s = g4_jpeg_symbol(j, &j->huff[c->dc_table]);
    if (s < 0) return "bad DC code";
    c->pred = (int16_t)(uint32_t)(c->pred + g4_jpeg_signed(j, s));
    b[0] = (int16_t)c->pred;
    const g4_jpeg_huff *ac = &j->huff[4 + c->ac_table];
    *dc_only = 1;
    for (int k = 1; k < 64; k++) {
        int rs = g4_jpeg_symbol(j, ac);
        if (rs < 0) return "bad AC code";
        s = rs & 15;
        if (s == 0) {
            if (rs != 0xf0) break;
            k += 15;
            continue;
        }
        k += rs >> 4;
        if (k > 63) return "coefficients run over the block";
        b[g4_zigzag[k]] = (int16_t)g4_jpeg_signed(j, s);
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
    int s = g4_jpeg_symbol(j, &j->huff[c->dc_table]);
    if (s < 0) return "bad DC code";
    c->pred = (int16_t)(uint32_t)(c->pred + g4_jpeg_signed(j, s));
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
        int rs = g4_jpeg_symbol(j, ac), r = rs >> 4, s = rs & 15;
        if (rs < 0) return "bad AC code";
        if (s == 0) {
            if (r < 15) {
                j->eob_run = (1u << r) - 1 + (uint32_t)g4_jpeg_get(j, r);
                break;
            }
            k += 15;
            continue;
        }
        k += r;
        if (k > 63) return "coefficients run over the block";
        b[g4_zigzag[k]] = (int16_t)(uint32_t)(g4_jpeg_signed(j, s) * (1 << j->al));
    }
    return NULL;
}

/* One more bit of a coefficient that is not zero. */
static void g4_jpeg_correct(g4_jpeg *j, int16_t *coef)
{
    int bit = 1 << j->al;
    if (g4_jpeg_get(j, 1) && !(*coef & bit)) *coef = (int16_t)(*coef >= 0 ? *coef + bit : *coef - bit);
}

static const char *g4_jpeg_ac_refine(g4_jpeg *j, const g4_jpeg_comp *c, int16_t *b)
{
    const g4_jpeg_huff *ac = &j->huff[4 + c->ac_table];
    int k = j->ss;
    while (j->eob_run == 0 && k <= j->se) {
        int rs = g4_jpeg_symbol(j, ac), r = rs >> 4, s = rs & 15, value = 0;
        if (rs < 0) return "bad AC code";
        if (s > 1) return "a refinement of more than one bit";
        if (s) {
            value = g4_jpeg_get(j, 1) ? 1 << j->al : -(1 << j->al);
        } else if (r < 15) {
            j->eob_run = (1u << r) + (uint32_t)g4_jpeg_get(j, r); /* this block included */
            break;
        }
        for (; k <= j->se; k++) { /* skip r zeros, correcting what is not zero on the way */
            int16_t *coef = b + g4_zigzag[k];
            if (*coef)
                g4_jpeg_correct(j, coef);
            else if (r-- == 0)
                break;
        }
        if (value) {
            if (k > j->se) return "coefficients run over the block";
            b[g4_zigzag[k]] = (int16_t)value;
        }
        k++;
    }
    if (j->eob_run > 0) {
        for (; k <= j->se; k++) {
            int16_t *coef = b + g4_zigzag[k];
            if (*coef) g4_jpeg_correct(j, coef);
        }
        j->eob_run--;
    }
    return NULL;
}

static const char *g4_jpeg_one(g4_jpeg *j, g4_jpeg_comp *c, int bx, int by) /* the block at column bx, row by */
{
    size_t at = (size_t)by * (size_t)c->stored_w + (size_t)bx;
    if (!j->progressive) {
        int16_t b[64] = { 0 };
        int dc_only;
        const char *wrong = g4_jpeg_block(j, c, b, &dc_only);
        size_t stride = (size_t)c->stored_w * 8;
        if (!wrong) g4_jpeg_idct(b, c->quant, dc_only, c->plane + (size_t)by * 8 * stride + (size_t)bx * 8, stride);
        return wrong;
    }
    int16_t *b = c->coef + 64 * at;
    if (j->ss == 0) return g4_jpeg_dc(j, c, b);
    return j->ah ? g4_jpeg_ac_refine(j, c, b) : g4_jpeg_ac_first(j, c, b);
}

/* Move to the next marker and return its code, or -1 at the end of the file. */
static int g4_jpeg_marker(g4_jpeg *j)
{
    for (;;) {
        while (j->at < j->size && j->data[j->at] != 0xff) j->at++;
        while (j->at < j->size && j->data[j->at] == 0xff) j->at++;
        if (j->at >= j->size) return -1;
        int code = j->data[j->at++];
        if (code) return code;
    }
}

static g4_status g4_jpeg_scan_header(g4_jpeg *j, const uint8_t *p, size_t n, g4_error *err) /* SOS */
{
    if (!j->n_comps) return g4_fail(err, G4_ERR_FORMAT, "JPEG: a scan before the frame header");
    if (n < 1 || p[0] < 1 || p[0] > 4 || n != 4 + 2 * (size_t)p[0])
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: scan header of %zu bytes", n);
    if (++j->scans > G4_JPEG_MAX_SCANS)
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: more than %d scans", G4_JPEG_MAX_SCANS);
    j->n_scan = p[0];
    const uint8_t *tail = p + 1 + 2 * j->n_scan;
    j->ss = tail[0];
    j->se = tail[1];
    j->ah = tail[2] >> 4;
    j->al = tail[2] & 15;
    int dc = !j->progressive || j->ss == 0, ac = !j->progressive || j->ss > 0, blocks = 0;
    if (j->progressive && (j->se > 63 || j->ss > j->se || (j->ss == 0 && j->se != 0) || (j->ss > 0 && j->n_scan != 1) ||
                           j->al > 13 || (j->ah != 0 && j->ah != j->al + 1)))
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: scan of coefficients %d..%d, bits %d..%d of %d components", j->ss,
                       j->se, j->ah, j->al, j->n_scan);
    for (int i = 0; i < j->n_scan; i++) {
        int k = 0;
        while (k < j->n_comps && j->comp[k].id != p[1 + 2 * i]) k++;
        for (int e = 0; e < i; e++) {
            if (j->order[e] == k) k = j->n_comps;
        }
        if (k >= j->n_comps)
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: the scan names component %d, which is unknown or named twice",
                           p[1 + 2 * i]);
        g4_jpeg_comp *c = &j->comp[k];
        j->order[i] = k;
        c->dc_table = p[2 + 2 * i] >> 4;
        c->ac_table = p[2 + 2 * i] & 15;
        blocks += c->h * c->v;
        if (c->dc_table > 3 || c->ac_table > 3 || (dc && !j->ah && !j->huff[c->dc_table].present) ||
            (ac && !j->huff[4 + c->ac_table].present))
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: the scan uses Huffman tables %d and %d, which are not there",
                           c->dc_table, c->ac_table);
        if (!c->has_quant) {
            if (!j->has_quant[c->tq])
                return g4_fail(err, G4_ERR_FORMAT, "JPEG: component %d uses quantisation table %d, which is not there",
                               k, c->tq);
            memcpy(c->quant, j->quant[c->tq], sizeof c->quant);
            c->has_quant = 1;
        }
        if (dc) c->seen = 1;
    }
    if (j->n_scan > 1 && blocks > 10)
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: %d blocks in one unit, expected at most 10", blocks);
    return G4_OK;
}

static g4_status g4_jpeg_scan(g4_jpeg *j, g4_error *err)
{
    g4_jpeg_comp *only = &j->comp[j->order[0]];
    int single = j->n_scan == 1, mw = single ? only->blocks_w : j->mcus_w, mh = single ? only->blocks_h : j->mcus_h;
    uint32_t left = j->restart, rst = 0;
    j->bits = 0;
    j->n_bits = j->invented = 0;
    j->eob_run = 0;
    for (int i = 0; i < 4; i++) j->comp[i].pred = 0;
    for (int my = 0; my < mh; my++) {
        for (int mx = 0; mx < mw; mx++) {
            const char *wrong = NULL;
            if (j->restart && left == 0) {
                int code = g4_jpeg_overrun(j) ? -1 : g4_jpeg_marker(j);
                if (code != (int)(0xd0 + rst))
                    return g4_fail(err, G4_ERR_FORMAT, "JPEG: byte %zu: expected restart marker %u", j->at,
                                   (unsigned)rst);
                rst = (rst + 1) & 7;
                left = j->restart;
                j->n_bits = j->invented = 0;
                j->eob_run = 0;
                for (int i = 0; i < 4; i++) j->comp[i].pred = 0;
            }
            left--;
            if (single) {
                wrong = g4_jpeg_one(j, only, mx, my);
            } else {
                for (int i = 0; i < j->n_scan; i++) {
                    g4_jpeg_comp *c = &j->comp[j->order[i]];
                    for (int b = 0; !wrong && b < c->h * c->v; b++)
                        wrong = g4_jpeg_one(j, c, mx * c->h + b % c->h, my * c->v + b / c->h);
                }
            }
            if (!wrong && g4_jpeg_overrun(j)) wrong = j->at >= j->size ? "truncated" : "the data ends early";
            if (wrong)
                return g4_fail(err, G4_ERR_FORMAT, "JPEG: scan %d, unit %d of row %d of %d, before byte %zu: %s",
                               j->scans, mx, my, mh, j->at, wrong);
        }
    }
    return G4_OK;
}

/* Row y of component c, scaled to `n` output columns (jdsample.c: fullsize, h2v1, h1v2, h2v2 fancy, int_upsample). */
static void g4_jpeg_upsample(const g4_jpeg *j, const g4_jpeg_comp *c, int y, uint8_t *out, int n)
{
    int eh = j->max_h / c->h, ev = j->max_v / c->v, last = c->width - 1;
    size_t stride = (size_t)c->stored_w * 8;
    int row = y / ev;
    const uint8_t *in = c->plane + (size_t)row * stride;
    if (eh == 1 && ev == 1) {
        memcpy(out, in, (size_t)n);
        return;
    }
    int near_row = y & 1 ? g4_min_int(row + 1, c->height - 1)
                         : g4_max_int(row - 1, 0); /* beyond the picture the edge row repeats */
    const uint8_t *near = c->plane + (size_t)near_row * stride;
    if (eh == 1 && ev == 2) {
        int bias = y & 1 ? 2 : 1;
        for (int x = 0; x < n; x++) out[x] = (uint8_t)((in[x] * 3 + near[x] + bias) >> 2);
    } else if (eh == 2 && ev == 1 && c->width > 2) {
        out[0] = in[0]; /* out has room for 2 * width */
        out[1] = (uint8_t)((in[0] * 3 + in[1] + 2) >> 2);
        for (int x = 1; x < last; x++) {
            out[2 * x] = (uint8_t)((in[x] * 3 + in[x - 1] + 1) >> 2);
            out[2 * x + 1] = (uint8_t)((in[x] * 3 + in[x + 1] + 2) >> 2);
        }
        out[2 * last] = (uint8_t)((in[last] * 3 + in[last - 1] + 1) >> 2);
        out[2 * last + 1] = in[last];
    } else if (eh == 2 && ev == 2 && c->width > 2) {
        int prev = 0, here = in[0] * 3 + near[0], next = in[1] * 3 + near[1];
        out[0] = (uint8_t)((here * 4 + 8) >> 4);
        out[1] = (uint8_t)((here * 3 + next + 7) >> 4);
        for (int x = 1; x < last; x++) {
            prev = here;
            here = next;
            next = in[x + 1] * 3 + near[x + 1];
            out[2 * x] = (uint8_t)((here * 3 + prev + 8) >> 4);
            out[2 * x + 1] = (uint8_t)((here * 3 + next + 7) >> 4);
        }
        out[2 * last] = (uint8_t)((next * 3 + here + 8) >> 4);
        out[2 * last + 1] = (uint8_t)((next * 4 + 7) >> 4);
    } else {
        for (int x = 0; x < n; x++) out[x] = in[x / eh];
    }
}

/* Pillow's product of two levels, rounded: a * b / 255. */
static int g4_mul_255(int a, int b)
{
    int t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

enum { G4_JPEG_GREY, G4_JPEG_RGB, G4_JPEG_YCC, G4_JPEG_CMYK, G4_JPEG_YCCK };

static int g4_jpeg_colours(const g4_jpeg *j) /* jdapimin.c, default_decompress_parms */
{
    const g4_jpeg_comp *c = j->comp;
    if (j->n_comps == 1) return G4_JPEG_GREY;
    if (j->n_comps == 4) return j->adobe <= 0 ? G4_JPEG_CMYK : G4_JPEG_YCCK;
    if (j->has_jfif) return G4_JPEG_YCC;
    if (j->adobe >= 0) return j->adobe == 0 ? G4_JPEG_RGB : G4_JPEG_YCC;
    return c[0].id == 'R' && c[1].id == 'G' && c[2].id == 'B' ? G4_JPEG_RGB : G4_JPEG_YCC;
}

/* Upsample and convert: jdcolor.c's tables with 16 fraction bits. CMYK is stored inverted, as everybody does since
 * Adobe. */
static g4_status g4_jpeg_output(const g4_jpeg *j, uint8_t *dst, g4_error *err)
{
    int colours = g4_jpeg_colours(j), n = j->w;
    size_t room = (size_t)j->mcus_w * 8 * (size_t)j->max_h + 8;
    uint8_t *rows = g4_alloc(j->m->a, room, 4);
    int32_t cr_r[256], cb_b[256], cr_g[256], cb_g[256];
    if (!rows) return g4_fail(err, G4_ERR_MEMORY, "JPEG: out of memory");
    for (int i = 0; i < 256; i++) {
        int32_t x = i - 128;
        cr_r[i] = (91881 * x + 32768) >> 16;  /* 1.402   */
        cb_b[i] = (116130 * x + 32768) >> 16; /* 1.772   */
        cr_g[i] = -46802 * x;                 /* 0.71414 */
        cb_g[i] = -22554 * x + 32768;         /* 0.34414 */
    }
    for (int y = 0; y < j->h; y++) {
        const uint8_t *p[4] = { rows, rows + room, rows + 2 * room, rows + 3 * room };
        for (int i = 0; i < j->n_comps; i++) g4_jpeg_upsample(j, &j->comp[i], y, rows + (size_t)i * room, n);
        for (int x = 0; x < n; x++, dst += 3) {
            int a = p[0][x], b = p[1][x], c = p[2][x];
            if (colours == G4_JPEG_GREY) {
                b = c = a;
            } else if (colours == G4_JPEG_YCC || colours == G4_JPEG_YCCK) {
                int r = a + cr_r[c], g = a + ((cb_g[b] + cr_g[c]) >> 16), blue = a + cb_b[b];
                int flip = colours == G4_JPEG_YCCK; /* YCCK holds C = 255 - R, M = 255 - G, Y = 255 - B */
                a = g4_clamp_u8(flip ? 255 - r : r);
                b = g4_clamp_u8(flip ? 255 - g : g);
                c = g4_clamp_u8(flip ? 255 - blue : blue);
            }
            if (colours >= G4_JPEG_CMYK) {
                int k = p[3][x]; /* stored inverted: this is 255 - K */
                a = k - g4_mul_255(255 - a, k);
                b = k - g4_mul_255(255 - b, k);
                c = k - g4_mul_255(255 - c, k);
            }
            dst[0] = (uint8_t)a;
            dst[1] = (uint8_t)b;
            dst[2] = (uint8_t)c;
        }
    }
    g4_free(j->m->a, rows);
    return G4_OK;
}

/* All segments up to the end of the picture. */
static g4_status g4_jpeg_segments(g4_jpeg *j, g4_error *err)
{
    for (;;) {
        int code = g4_jpeg_marker(j);
        if (code < 0) return g4_fail(err, G4_ERR_FORMAT, "JPEG: truncated: no end marker in %zu bytes", j->size);
        if (code == 0xd9) return G4_OK;
        if (code == 0x01 || (code >= 0xd0 && code <= 0xd8)) continue; /* these have no length */
        size_t n = j->size - j->at >= 2 ? g4_be16(j->data + j->at) : 0;
        if (n < 2 || n > j->size - j->at)
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: truncated in segment 0x%02x at byte %zu of %zu", code, j->at,
                           j->size);
        const uint8_t *p = j->data + j->at + 2;
        j->at += n;
        n -= 2;
        g4_status s = G4_OK;
        if (code == 0xc4) {
            s = g4_jpeg_tables(j, p, n, err);
        } else if (code == 0xdb) {
            s = g4_jpeg_quant(j, p, n, err);
        } else if (code >= 0xc0 && code <= 0xc2) {
            j->progressive = code == 0xc2;
            s = g4_jpeg_frame(j, p, n, err);
        } else if (code >= 0xc3 && code <= 0xcf) {
            s = g4_fail(err, G4_ERR_UNSUPPORTED,
                        "JPEG: frame type 0x%02x (lossless, hierarchical or arithmetic) cannot be read", code);
        } else if (code == 0xdd) {
            if (n != 2) return g4_fail(err, G4_ERR_FORMAT, "JPEG: restart interval of %zu bytes, expected 2", n);
            j->restart = g4_be16(p);
        } else if (code == 0xe0 && n >= 5 && !memcmp(p, "JFIF", 5)) {
            j->has_jfif = 1;
        } else if (code == 0xe1 && n >= 6 && !memcmp(p, "Exif\0", 6) && j->orientation == 0) {
            j->orientation = g4_exif_orientation(p + 6, n - 6);
        } else if (code == 0xee && n >= 12 && !memcmp(p, "Adobe", 5)) {
            j->adobe = p[11];
        } else if (code == 0xda) {
            s = g4_jpeg_scan_header(j, p, n, err);
            if (!s) s = g4_jpeg_scan(j, err);
        }
        if (s) return s;
    }
}

g4_status g4_jpeg_decode(const g4_media *m, const uint8_t *data, size_t size, uint8_t **pixels, int *w, int *h,
                         g4_error *err)
{
    g4_jpeg j = { 0 };
    j.m = m;
    j.data = data;
    j.size = size;
    j.at = 2;
    j.adobe = -1;
    *pixels = NULL;
    j.huff = g4_alloc(m->a, 8, sizeof *j.huff);
    g4_status s = j.huff ? g4_jpeg_segments(&j, err) : g4_fail(err, G4_ERR_MEMORY, "JPEG: out of memory");
    if (!s && !j.n_comps) s = g4_fail(err, G4_ERR_FORMAT, "JPEG: no picture in it");
    for (int i = 0; !s && i < j.n_comps; i++) {
        g4_jpeg_comp *c = &j.comp[i];
        if (!c->seen) s = g4_fail(err, G4_ERR_FORMAT, "JPEG: component %d is in no scan", i);
        for (int by = 0; !s && j.progressive && by < c->blocks_h; by++) {
            for (int bx = 0; bx < c->blocks_w; bx++) {
                size_t stride = (size_t)c->stored_w * 8;
                const int16_t *b = c->coef + 64 * ((size_t)by * (size_t)c->stored_w + (size_t)bx);
                g4_jpeg_idct(b, c->quant, 0, c->plane + (size_t)by * 8 * stride + (size_t)bx * 8, stride);
            }
        }
    }
    if (!s) s = g4_pixels_alloc(m, "JPEG", (uint64_t)j.w, (uint64_t)j.h, pixels, err);
    if (!s) s = g4_jpeg_output(&j, *pixels, err);
    *w = j.w;
    *h = j.h;
    if (!s) s = g4_orient(m, pixels, w, h, j.orientation, err);
    for (int i = 0; i < 4; i++) {
        g4_free(m->a, j.comp[i].plane);
        g4_free(m->a, j.comp[i].coef);
    }
    g4_free(m->a, j.huff);
    if (s) {
        g4_free(m->a, *pixels);
        *pixels = NULL;
    }
    return s;
}
