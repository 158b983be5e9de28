/* jpeg.c - JPEG (ITU-T T.81): baseline, extended and progressive Huffman files of 8 bits, grey, YCbCr, RGB, CMYK and
 * YCCK, as RGB. The pixels equal libjpeg-turbo's defaults bit for bit (accurate integer IDCT of jidctint.c, fancy
 * upsampling of jdsample.c, colour tables of jdcolor.c), and CMYK is turned into RGB as Pillow does. A sequential scan
 * is transformed as it is read; progressive ones keep all coefficients until the end. Damage inside a scan is painted
 * over as libjpeg does, bit for bit: a code that does not exist reads as 0, what a marker cuts off is grey up to the
 * next restart. A file that ends inside a scan is an error. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>

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
       G4_JPEG_APP1 = 0xe1, /* EXIF, XMP */
       G4_JPEG_APP14 = 0xee /* Adobe */
};

typedef struct {
    uint16_t fast[512]; /* symbol << 4 | length, by the next 9 bits; 0: a longer code */
    int32_t last[17];   /* largest code of each length, -1: none */
    int32_t offset[17]; /* index of a code's symbol = code + offset[length] */
    uint8_t symbol[256];
    int present; /* it is there, and its codes make sense */
} g4_jpeg_huff;

typedef struct {
    int id, h, v, tq;               /* sampling factors, quantisation table */
    int blocks_w, blocks_h;         /* blocks with pixels in them */
    int stored_w, stored_h;         /* the same, rounded up to whole MCUs */
    int width, height;              /* samples: libjpeg's downsampled_width and _height */
    int dc_table, ac_table, pred;   /* of the present scan */
    int seen, has_quant;            /* its DC was in some scan; quant is set */
    uint8_t missing[G4_JPEG_BLOCK]; /* low bits of each coefficient that no scan brought; progressive only */
    uint16_t quant[G4_JPEG_BLOCK];  /* as it was when the component's first scan began */
    uint8_t *plane;                 /* (8 stored_h, 8 stored_w) */
    int16_t *coef;                  /* (stored_h, stored_w, 64) in natural order, progressive only */
} g4_jpeg_comp;

typedef struct {
    const g4_media_limits *m;
    const uint8_t *data;
    size_t size, pos;
    int w, h, n_comps, progressive, max_h, max_v, mcus_w, mcus_h;
    g4_jpeg_comp comp[4];
    uint16_t quant[4][G4_JPEG_BLOCK];
    int has_quant[4];
    g4_jpeg_huff *huff;  /* (2, 4): DC, AC */
    uint32_t restart;    /* MCUs between restart markers, 0: none */
    int has_jfif, adobe; /* adobe: colour transform of its marker, -1 without one */
    g4_turn turn;
    uint64_t blocks; /* that all scans so far went through */
    /* the scan being read: components in order, coefficients ss to se, their bits ah (before) and al */
    int n_scan, order[4], ss, se, ah, al;
    uint32_t eob_run; /* blocks that end at once */
    uint64_t bits;    /* n_bits of them, the next one highest */
    int n_bits;
    int invented;       /* zero bytes put in where the data had ended */
    int cut_off;        /* the data of this restart interval have ended: what is left of it stays as it is */
    int only_size;      /* stop at the first scan, and take no memory for pixels */
    int is_plain;       /* samples of chroma are repeated, not weighted */
    int want_w, want_h; /* the width it must have, and the most rows; 0: any */
    g4_pace pace;
} g4_jpeg;

static const uint8_t g4_zigzag[G4_JPEG_BLOCK] = { 0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                                                  12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                                                  35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                                                  58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63 };

/* ---- Bits of a scan ------------------------------------------------------------------------- */

/* Bytes without a 0xff among them, as many as fit. 0: there is one, or the file ends too soon. */
static inline int g4_jpeg_fill_fast(g4_jpeg *j)
{
    if (j->size - j->pos < 8) return 0;
    const uint8_t *p = j->data + j->pos;
    const uint64_t next = (uint64_t)g4_be32(p) << 32 | g4_be32(p + 4);
    const uint64_t low = UINT64_C(0x0101010101010101), high = low << 7;
    if ((~next - low) & next & high) return 0; /* a byte of ~next is zero */
    const int n = (64 - j->n_bits) / 8;
    j->bits = n == 8 ? next : j->bits << (8 * n) | next >> (64 - 8 * n);
    j->n_bits += 8 * n;
    j->pos += (size_t)n;
    return 1;
}

/* More than 56 bits. */
static void g4_jpeg_fill(g4_jpeg *j)
{
    if (g4_jpeg_fill_fast(j)) return;
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

/* A code that does not exist takes 17 bits and reads as 0, as in jdhuff.c. */
static int g4_jpeg_symbol(g4_jpeg *j, const g4_jpeg_huff *h)
{
    if (j->n_bits < 17) g4_jpeg_fill(j);
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
    j->n_bits -= 17;
    return 0;
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

/* Codes of lengths 1 to 16: count[l] of each, with these symbols. A scan may not use a table with more codes than there
 * are, or a DC table (class 0) with sizes above 15. */
static void g4_jpeg_huff_build(g4_jpeg_huff *h, int class, const uint8_t *count, const uint8_t *symbols, size_t total)
{
    memset(h, 0, sizeof *h);
    memcpy(h->symbol, symbols, total);
    int32_t code = 0, index = 0;
    for (int l = 1; l <= 16; l++, code <<= 1) {
        h->offset[l] = index - code;
        for (int i = 0; i < count[l]; i++, code++, index++) {
            if (code >= 1 << l || (class == 0 && h->symbol[index] > 15)) return;
            for (int rest = 0; l <= 9 && rest < 1 << (9 - l); rest++)
                h->fast[code << (9 - l) | rest] = (uint16_t)(h->symbol[index] << 4 | l);
        }
        h->last[l] = count[l] ? code - 1 : -1;
    }
    h->present = 1;
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
        g4_jpeg_huff_build(&j->huff[(p[0] >> 4) * 4 + (p[0] & 3)], p[0] >> 4, p, p + 17, total);
        p += 17 + total;
        n -= 17 + total;
    }
    return G4_OK;
}

/* The tables that a file without its own is meant to use, such as frames of motion JPEG (T.81, K.3), as a DHT
 * segment. */
static const uint8_t g4_jpeg_usual_tables[] = {
    0x00, 0x00, 0x01, 0x05, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01,
    0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x10, 0x00, 0x02, 0x01, 0x03, 0x03, 0x02, 0x04, 0x03,
    0x05, 0x05, 0x04, 0x04, 0x00, 0x00, 0x01, 0x7d, 0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41,
    0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52,
    0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29,
    0x2a, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55,
    0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78,
    0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a,
    0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2,
    0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
    0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0x01,
    0x00, 0x03, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02,
    0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x11, 0x00, 0x02, 0x01, 0x02, 0x04, 0x04, 0x03, 0x04, 0x07,
    0x05, 0x04, 0x04, 0x00, 0x01, 0x02, 0x77, 0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41,
    0x51, 0x07, 0x61, 0x71, 0x13, 0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52,
    0xf0, 0x15, 0x62, 0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28,
    0x29, 0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55,
    0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78,
    0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba,
    0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe2,
    0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa
};

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
        memset(c->missing, 255, sizeof c->missing);
        blocks += (uint64_t)c->blocks_w * (uint64_t)c->blocks_h;
    }
    if (blocks / 8 > j->size) /* a block takes one bit or more */
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: truncated: %zu bytes cannot hold %d x %d pixels", j->size, j->w,
                       j->h);
    return g4_pixels_check_bytes(j->m, "JPEG", (uint64_t)j->w, (uint64_t)j->h, j->size, err);
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
    if (n_comps != 1 && n_comps != 3 && n_comps != 4 && !(n_comps == 2 && j->want_w)) /* two: grey and transparency */
        return g4_fail(err, G4_ERR_UNSUPPORTED, "JPEG: %d components, expected 1, 3 or 4", n_comps);
    if (j->want_w && (w != (uint32_t)j->want_w || h > (uint32_t)j->want_h))
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: %u x %u pixels, expected %d x at most %d", (unsigned)w, (unsigned)h,
                       j->want_w, j->want_h);
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

static inline int16_t g4_clamp_16(int32_t v)
{
    return (int16_t)(v < INT16_MIN ? INT16_MIN : v > INT16_MAX ? INT16_MAX : v);
}

/* One direction of the 8-point inverse DCT of jidctint.c for 8 columns at once, v and out (8, 8): 13 fraction bits,
 * results rounded to `shift` bits less. As libjpeg-turbo's vector code does it: 16 bits in and out, sums of two inputs
 * wrap, results are clamped. 32-bit sums are unsigned, so that those of hostile coefficients wrap. */
static void g4_idct_columns(const int16_t *restrict v, int shift, int16_t *restrict out)
{
    const uint32_t half = 1u << (shift - 1);
    for (size_t x = 0; x < 8; x++, v++, out++) {
        const uint32_t e2 = (uint32_t)(v[16] * 4433) - (uint32_t)(v[48] * 10704);
        const uint32_t e3 = (uint32_t)(v[16] * 10703) + (uint32_t)(v[48] * 4433);
        const uint32_t e0 = (uint32_t)g4_wrap_16(v[0] + v[32]) << 13, e1 = (uint32_t)g4_wrap_16(v[0] - v[32]) << 13;
        const int16_t z3 = g4_wrap_16(v[56] + v[24]), z4 = g4_wrap_16(v[40] + v[8]);
        const uint32_t a = (uint32_t)(z4 * 9633) - (uint32_t)(z3 * 6436),
                       b = (uint32_t)(z3 * 9633) + (uint32_t)(z4 * 6437);
        const uint32_t o0 = a - (uint32_t)(v[56] * 4927) - (uint32_t)(v[8] * 7373);
        const uint32_t o1 = b - (uint32_t)(v[40] * 4176) - (uint32_t)(v[24] * 20995);
        const uint32_t o2 = a - (uint32_t)(v[40] * 20995) + (uint32_t)(v[24] * 4177);
        const uint32_t o3 = b + (uint32_t)(v[8] * 4926) - (uint32_t)(v[56] * 7373);
        out[0] = g4_clamp_16((int32_t)(e0 + e3 + o3 + half) >> shift);
        out[8] = g4_clamp_16((int32_t)(e1 + e2 + o2 + half) >> shift);
        out[16] = g4_clamp_16((int32_t)(e1 - e2 + o1 + half) >> shift);
        out[24] = g4_clamp_16((int32_t)(e0 - e3 + o0 + half) >> shift);
        out[32] = g4_clamp_16((int32_t)(e0 - e3 - o0 + half) >> shift);
        out[40] = g4_clamp_16((int32_t)(e1 - e2 - o1 + half) >> shift);
        out[48] = g4_clamp_16((int32_t)(e1 + e2 - o2 + half) >> shift);
        out[56] = g4_clamp_16((int32_t)(e0 + e3 - o3 + half) >> shift);
    }
}

/* The two halves of v (64) in turn. An index loses its first bit of six, which becomes its last: three times, and the
 * halves of the index, row and column, have changed places. In this form compilers make vector code of it. */
static inline void g4_idct_shuffle(const int16_t *restrict v, int16_t *restrict out)
{
    for (size_t i = 0; i < G4_JPEG_BLOCK / 2; i++) {
        out[2 * i] = v[i];
        out[2 * i + 1] = v[i + G4_JPEG_BLOCK / 2];
    }
}
static inline void g4_idct_transpose(int16_t *restrict v, int16_t *restrict out)
{
    g4_idct_shuffle(v, out);
    g4_idct_shuffle(out, v);
    g4_idct_shuffle(v, out);
}

/* coef (64), natural order -> 8 x 8 samples. dc_only: all others are zero. */
static void g4_jpeg_idct(const int16_t *coef, const uint16_t *quant, int dc_only, uint8_t *out, size_t stride)
{
    if (dc_only) {
        const int32_t v = g4_wrap_16(g4_wrap_16(coef[0] * (int32_t)quant[0]) * 4);
        const uint8_t level = g4_clamp_u8(((v + 16) >> 5) + 128);
        for (size_t y = 0; y < 8; y++) memset(out + y * stride, level, 8);
        return;
    }
    int16_t v[G4_JPEG_BLOCK], t[G4_JPEG_BLOCK];
    for (size_t i = 0; i < G4_JPEG_BLOCK; i++) v[i] = (int16_t)(uint16_t)(coef[i] * quant[i]);
    g4_idct_columns(v, 13 - 2, t); /* keeps 2 fraction bits */
    g4_idct_transpose(t, v);
    g4_idct_columns(v, 13 + 2 + 3, t);
    g4_idct_transpose(t, v);
    for (size_t y = 0; y < 8; y++) {
        for (size_t x = 0; x < 8; x++) {
            const int16_t level = v[8 * y + x];
            out[y * stride + x] = (uint8_t)((level < -128 ? -128 : level > 127 ? 127 : level) + 128);
        }
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
 * Each reader adds to the coefficients of a block. */

/* The DC coefficient as a difference to the block before. */
static void g4_jpeg_predict(g4_jpeg *j, g4_jpeg_comp *c)
{
    const int s = g4_jpeg_symbol(j, &j->huff[c->dc_table]);
    c->pred = (int16_t)(uint32_t)(c->pred + g4_jpeg_signed(j, s));
}

/* Where coefficient k stands; those beyond the block count as its last, as in libjpeg. */
static int g4_jpeg_place(int k) { return k < G4_JPEG_BLOCK ? g4_zigzag[k] : G4_JPEG_BLOCK - 1; }

/* All coefficients of a block of a sequential file; b is zero on entry. 1: only the first is not zero. */
static int g4_jpeg_sequential(g4_jpeg *j, g4_jpeg_comp *c, int16_t *b)
{
    const g4_jpeg_huff *ac = &j->huff[4 + c->ac_table];
    int dc_only = 1;
    g4_jpeg_predict(j, c);
    b[0] = (int16_t)c->pred;
    for (int k = 1; k < G4_JPEG_BLOCK; k++) {
        const int symbol = g4_jpeg_symbol(j, ac); /* zeros before, size */
        const int size = symbol & 15;
        if (size == 0) {
            if (symbol != 0xf0) break; /* the end of the block, else 16 zeros */
            k += 15;
            continue;
        }
        k += symbol >> 4;
        b[g4_jpeg_place(k)] = (int16_t)g4_jpeg_signed(j, size);
        dc_only = 0;
    }
    return dc_only;
}

static void g4_jpeg_dc(g4_jpeg *j, g4_jpeg_comp *c, int16_t *b) /* progressive, first and refining */
{
    if (j->ah) {
        if (g4_jpeg_get(j, 1)) b[0] = (int16_t)(b[0] | 1 << j->al);
        return;
    }
    g4_jpeg_predict(j, c);
    b[0] = (int16_t)(uint32_t)(c->pred * (1 << j->al));
}

static void g4_jpeg_ac_first(g4_jpeg *j, const g4_jpeg_comp *c, int16_t *b)
{
    const g4_jpeg_huff *ac = &j->huff[4 + c->ac_table];
    if (j->eob_run > 0) {
        j->eob_run--;
        return;
    }
    for (int k = j->ss; k <= j->se; k++) {
        const int symbol = g4_jpeg_symbol(j, ac), run = symbol >> 4, size = symbol & 15;
        if (size == 0) {
            if (run < 15) {
                j->eob_run = (1u << run) - 1 + (uint32_t)g4_jpeg_get(j, run);
                break;
            }
            k += 15;
            continue;
        }
        k += run;
        b[g4_jpeg_place(k)] = (int16_t)(uint32_t)(g4_jpeg_signed(j, size) * (1 << j->al));
    }
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

/* Is none of the coefficients of a block set, but for the first? */
static int g4_jpeg_is_flat(const int16_t *b)
{
    int16_t any = 0;
    for (int k = 1; k < G4_JPEG_BLOCK; k++) any |= b[k];
    return any == 0;
}

static void g4_jpeg_ac_refine(g4_jpeg *j, const g4_jpeg_comp *c, int16_t *b)
{
    const g4_jpeg_huff *ac = &j->huff[4 + c->ac_table];
    int k = j->ss;
    while (j->eob_run == 0 && k <= j->se) {
        const int symbol = g4_jpeg_symbol(j, ac), run = symbol >> 4, size = symbol & 15;
        int value = 0;
        if (size) { /* more than one bit counts as one */
            value = g4_jpeg_get(j, 1) ? 1 << j->al : -(1 << j->al);
        } else if (run < 15) {
            j->eob_run = (1u << run) + (uint32_t)g4_jpeg_get(j, run); /* this block included */
            break;
        }
        k = g4_jpeg_refine(j, b, k, run);
        if (value) b[g4_jpeg_place(k)] = (int16_t)value;
        k++;
    }
    if (j->eob_run > 0) {
        if (!g4_jpeg_is_flat(b)) g4_jpeg_refine(j, b, k, G4_JPEG_BLOCK);
        j->eob_run--;
    }
}

static void g4_jpeg_block(g4_jpeg *j, g4_jpeg_comp *c, int bx, int by) /* the one at column bx, row by */
{
    if (!j->progressive) {
        int16_t b[G4_JPEG_BLOCK] = { 0 };
        const int dc_only = j->cut_off || g4_jpeg_sequential(j, c, b);
        g4_jpeg_put_block(c, bx, by, b, dc_only);
    } else if (!j->cut_off) {
        int16_t *b = g4_jpeg_coefs(c, bx, by);
        if (j->ss == 0)
            g4_jpeg_dc(j, c, b);
        else if (j->ah)
            g4_jpeg_ac_refine(j, c, b);
        else
            g4_jpeg_ac_first(j, c, b);
    }
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
    if ((dc && !j->ah && (c->dc_table > 3 || !j->huff[c->dc_table].present)) ||
        (ac && (c->ac_table > 3 || !j->huff[4 + c->ac_table].present)))
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: the scan uses Huffman tables %d and %d, which are missing or wrong",
                       c->dc_table, c->ac_table);
    if (!c->has_quant) {
        if (!j->has_quant[c->tq])
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: component %d uses quantisation table %d, which is not there", k,
                           c->tq);
        memcpy(c->quant, j->quant[c->tq], sizeof c->quant);
        c->has_quant = 1;
    }
    if (dc) c->seen = 1;
    for (int i = j->ss; j->progressive && i <= j->se; i++) c->missing[i] = (uint8_t)j->al;
    return G4_OK;
}

/* Coefficients and bits of the scan from the last three bytes of its header. */
static g4_status g4_jpeg_scan_range(g4_jpeg *j, const uint8_t *p, g4_error *err)
{
    j->ss = j->progressive ? p[0] : 0; /* a sequential scan brings all, whatever it says */
    j->se = j->progressive ? p[1] : 63;
    j->ah = j->progressive ? p[2] >> 4 : 0;
    j->al = j->progressive ? p[2] & 15 : 0;
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
        j->blocks += (uint64_t)j->comp[k].stored_w * (uint64_t)j->comp[k].stored_h;
        s = g4_jpeg_scan_tables(j, k, entry[1], dc, ac, err);
        if (s) return s;
    }
    if (j->n_scan > 1 && blocks > 10)
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: %d blocks in one unit, expected at most 10", blocks);
    if (j->blocks > j->m->max_scan_blocks)
        return g4_fail(err, G4_ERR_UNSUPPORTED,
                       "JPEG: %" PRIu64 " blocks in its scans are more than the limit of %" PRIu64, j->blocks,
                       j->m->max_scan_blocks);
    return G4_OK;
}

static g4_status g4_jpeg_truncated(const g4_jpeg *j, g4_error *err)
{
    return g4_fail(err, G4_ERR_FORMAT, "JPEG: truncated: the pixels are not complete in %zu bytes", j->size);
}

/* What holds at the start of a scan and behind each restart marker. */
static void g4_jpeg_reset(g4_jpeg *j)
{
    j->bits = 0;
    j->n_bits = j->invented = j->cut_off = 0;
    j->eob_run = 0;
    for (int i = 0; i < 4; i++) j->comp[i].pred = 0;
}

/* Where restart marker `index` is expected. Another one is passed when it belongs before it, and left for later, so
 * that what is missing stays empty, when it is one of the next two; likewise one that is no restart (jdmarker.c,
 * jpeg_resync_to_restart). */
static g4_status g4_jpeg_restart(g4_jpeg *j, int index, g4_error *err)
{
    for (;;) {
        const int code = g4_jpeg_marker(j), ahead = (code - G4_JPEG_RST0 - index) & 7;
        if (code < 0) return g4_jpeg_truncated(j, err);
        const int is_restart = code >= G4_JPEG_RST0 && code < G4_JPEG_SOI;
        if (code < G4_JPEG_SOF0 || (is_restart && ahead >= 6)) continue;
        const int is_cut_off = !is_restart || ahead == 1 || ahead == 2, was_cut_off = j->cut_off;
        g4_jpeg_reset(j);
        if (!is_cut_off) return G4_OK;
        j->cut_off = was_cut_off;
        j->pos -= 2;
        return G4_OK;
    }
}

/* The MCU at column mx, row my: a block when the scan has one component, else some of each. */
static void g4_jpeg_mcu(g4_jpeg *j, int mx, int my)
{
    if (j->n_scan == 1) {
        g4_jpeg_block(j, &j->comp[j->order[0]], mx, my);
        return;
    }
    for (int i = 0; i < j->n_scan; i++) {
        g4_jpeg_comp *c = &j->comp[j->order[i]];
        for (int b = 0; b < c->h * c->v; b++) g4_jpeg_block(j, c, mx * c->h + b % c->h, my * c->v + b / c->h);
    }
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
            g4_jpeg_mcu(j, mx, my);
            if (j->cut_off || !g4_jpeg_overrun(j)) continue;
            if (j->size - j->pos < 2) return g4_jpeg_truncated(j, err);
            j->cut_off = 1;
        }
    }
    return G4_OK;
}

/* The samples of all blocks that a progressive file has kept, which are freed. */
static g4_status g4_jpeg_transform(g4_jpeg *j, g4_error *err)
{
    for (int i = 0; i < j->n_comps; i++) {
        g4_jpeg_comp *c = &j->comp[i];
        for (int by = 0; by < c->blocks_h; by++) {
            if (g4_pace_ends(&j->pace, (size_t)c->blocks_w * G4_JPEG_BLOCK)) return g4_halt_check(j->m->halt, err);
            for (int bx = 0; bx < c->blocks_w; bx++) g4_jpeg_put_block(c, bx, by, g4_jpeg_coefs(c, bx, by), 0);
        }
        g4_free(j->m->a, c->coef);
        c->coef = NULL;
    }
    return G4_OK;
}

/* ---- Upsampling -----------------------------------------------------------------------------
 *
 * One row of samples to twice as many columns (h2) or between two rows (v2), weighted 3 to 1 towards the nearer sample:
 * jdsample.c's fancy upsampling, with its alternating roundings. */

static void g4_jpeg_h1v2(const uint8_t *row, const uint8_t *near, int n, int bias, uint8_t *restrict out)
{
    for (int x = 0; x < n; x++) out[x] = (uint8_t)((row[x] * 3 + near[x] + bias) >> 2);
}

static void g4_jpeg_h2v1(const uint8_t *row, int width, uint8_t *restrict out) /* width > 2 */
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

/* sums: room for (width). width > 2 */
static void g4_jpeg_h2v2(const uint8_t *row, const uint8_t *near, int width, int16_t *restrict sums,
                         uint8_t *restrict out)
{
    const int last = width - 1;
    for (int x = 0; x < width; x++) sums[x] = (int16_t)(row[x] * 3 + near[x]);
    out[0] = (uint8_t)((sums[0] * 4 + 8) >> 4);
    out[1] = (uint8_t)((sums[0] * 3 + sums[1] + 7) >> 4);
    for (int x = 1; x < last; x++) {
        out[2 * x] = (uint8_t)((sums[x] * 3 + sums[x - 1] + 8) >> 4);
        out[2 * x + 1] = (uint8_t)((sums[x] * 3 + sums[x + 1] + 7) >> 4);
    }
    out[2 * last] = (uint8_t)((sums[last] * 3 + sums[last - 1] + 8) >> 4);
    out[2 * last + 1] = (uint8_t)((sums[last] * 4 + 7) >> 4);
}

/* Row y of component c, scaled to n output columns. out has room for 2 * width, sums for (width). Returns the row. */
static const uint8_t *g4_jpeg_upsample(const g4_jpeg *j, const g4_jpeg_comp *c, int y, int16_t *sums, uint8_t *out,
                                       int n)
{
    const int by_h = j->max_h / c->h, by_v = j->max_v / c->v, index = y / by_v;
    const size_t stride = (size_t)c->stored_w * 8;
    const uint8_t *row = c->plane + (size_t)index * stride;
    /* beyond the picture the edge row repeats */
    const int near_index = y & 1 ? g4_min_int(index + 1, c->height - 1) : g4_max_int(index - 1, 0);
    const uint8_t *near = c->plane + (size_t)near_index * stride;
    if (by_h == 1 && by_v == 1) return row;
    if (j->is_plain)
        for (int x = 0; x < n; x++) out[x] = row[x / by_h];
    else if (by_h == 1 && by_v == 2)
        g4_jpeg_h1v2(row, near, n, y & 1 ? 2 : 1, out);
    else if (by_h == 2 && by_v == 1 && c->width > 2)
        g4_jpeg_h2v1(row, c->width, out);
    else if (by_h == 2 && by_v == 2 && c->width > 2)
        g4_jpeg_h2v2(row, near, c->width, sums, out);
    else
        for (int x = 0; x < n; x++) out[x] = row[x / by_h];
    return out;
}

/* ---- Colours -------------------------------------------------------------------------------- */

/* The first is for data inside of another file, which tells what they mean: as many samples a pixel as it has. */
typedef enum { G4_JPEG_AS_IS, G4_JPEG_GREY, G4_JPEG_RGB, G4_JPEG_YCC, G4_JPEG_CMYK, G4_JPEG_YCCK } g4_jpeg_colours;

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
    uint8_t clamped[3 * 256]; /* of a level from -256 on */
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
    for (int i = 0; i < 3 * 256; i++) t->clamped[i] = g4_clamp_u8(i - 256);
}

/* Pillow's product of two levels, rounded: a * b / 255. */
static inline int g4_mul_255(int a, int b)
{
    const int t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

/* Of a colour with so much ink, where the black leaves so much of the white. */
static inline uint8_t g4_jpeg_cmyk_level(int ink, int white) { return (uint8_t)(white - g4_mul_255(ink, white)); }

static void g4_jpeg_ycc_row(const g4_jpeg_ycc *t, const uint8_t *const p[4], int n, uint8_t *restrict dst)
{
    const uint8_t *const clamped = t->clamped + 256;
    for (int x = 0; x < n; x++, dst += 3) {
        const int y = p[0][x], b = p[1][x], r = p[2][x];
        dst[0] = clamped[y + t->cr_r[r]];
        dst[1] = clamped[y + ((t->cb_g[b] + t->cr_g[r]) >> 16)];
        dst[2] = clamped[y + t->cb_b[b]];
    }
}

/* n pixels of the rows p of all components to RGB. CMYK is stored inverted, as everybody does since Adobe; YCCK holds
 * C = 255 - R, M = 255 - G, Y = 255 - B. */
static void g4_jpeg_convert(g4_jpeg_colours colours, const g4_jpeg_ycc *t, const uint8_t *const p[4], int n,
                            uint8_t *restrict dst)
{
    if (colours == G4_JPEG_YCC || colours == G4_JPEG_YCCK) {
        g4_jpeg_ycc_row(t, p, n, dst);
    } else {
        const int second = colours == G4_JPEG_GREY ? 0 : 1, third = 2 * second;
        for (int x = 0; x < n; x++) {
            dst[3 * x] = p[0][x];
            dst[3 * x + 1] = p[second][x];
            dst[3 * x + 2] = p[third][x];
        }
    }
    if (colours < G4_JPEG_CMYK) return;
    const int flip = colours == G4_JPEG_YCCK ? 0 : 255;
    for (int x = 0; x < n; x++)
        for (int c = 0; c < 3; c++) dst[3 * x + c] = g4_jpeg_cmyk_level(dst[3 * x + c] ^ flip, p[3][x]);
}

/* The components of n pixels, as they are. */
static void g4_jpeg_interleave(const uint8_t *const p[4], int n_comps, int n, uint8_t *restrict dst)
{
    for (int x = 0; x < n; x++)
        for (int c = 0; c < n_comps; c++) *dst++ = p[c][x];
}

/* The first h rows. */
static g4_status g4_jpeg_output(g4_jpeg *j, g4_jpeg_colours colours, int h, uint8_t *out, g4_error *err)
{
    const size_t stride = (size_t)j->w * (colours == G4_JPEG_AS_IS ? (size_t)j->n_comps : 3);
    const size_t room = (size_t)j->mcus_w * 8 * (size_t)j->max_h + 8;
    uint8_t *rows = g4_alloc(j->m->a, room, 4);
    int16_t *sums = g4_alloc(j->m->a, room, sizeof *sums);
    const uint8_t *p[4] = { NULL };
    g4_jpeg_ycc ycc;
    g4_jpeg_ycc_make(&ycc);
    g4_status s = rows && sums ? G4_OK : g4_fail(err, G4_ERR_MEMORY, "JPEG: out of memory");
    for (int y = 0; y < h && !s; y++) {
        for (int i = 0; i < j->n_comps; i++)
            p[i] = g4_jpeg_upsample(j, &j->comp[i], y, sums, rows + (size_t)i * room, j->w);
        if (colours == G4_JPEG_AS_IS)
            g4_jpeg_interleave(p, j->n_comps, j->w, out + stride * (size_t)y);
        else
            g4_jpeg_convert(colours, &ycc, p, j->w, out + stride * (size_t)y);
        if (g4_pace_ends(&j->pace, 4 * (size_t)j->w)) s = g4_halt_check(j->m->halt, err);
    }
    g4_free(j->m->a, rows);
    g4_free(j->m->a, sums);
    return s;
}

/* Four components of full size become three, in their place: with all four, the pixels would take more than they do
 * themselves. */
static g4_status g4_jpeg_fold(g4_jpeg *j, g4_jpeg_colours *colours, g4_error *err)
{
    g4_jpeg_comp *const c = j->comp;
    g4_jpeg_ycc ycc;
    for (int i = 0; i < j->n_comps; i++)
        if (j->n_comps < 4 || c[i].h != j->max_h || c[i].v != j->max_v) return G4_OK;
    uint8_t *rgb = g4_alloc(j->m->a, (size_t)j->w, 3);
    if (!rgb) return g4_fail(err, G4_ERR_MEMORY, "JPEG: out of memory");
    g4_jpeg_ycc_make(&ycc);
    g4_status s = G4_OK;
    const size_t w = (size_t)j->w;
    for (size_t y = 0; y < (size_t)j->h && !s; y++) {
        uint8_t *p[4];
        for (int i = 0; i < 4; i++) p[i] = c[i].plane + y * (size_t)c[i].stored_w * 8;
        if (*colours == G4_JPEG_YCCK) g4_jpeg_ycc_row(&ycc, (const uint8_t *const *)p, j->w, rgb);
        for (int i = 0; i < 3; i++) {
            uint8_t *const plane = p[i];
            for (size_t x = 0; x < w; x++)
                plane[x] =
                    g4_jpeg_cmyk_level(*colours == G4_JPEG_YCCK ? rgb[3 * x + (size_t)i] : plane[x] ^ 255, p[3][x]);
        }
        if (g4_pace_ends(&j->pace, 4 * (size_t)j->w)) s = g4_halt_check(j->m->halt, err);
    }
    g4_free(j->m->a, rgb);
    g4_free(j->m->a, c[3].plane);
    c[3].plane = NULL;
    j->n_comps = 3;
    *colours = G4_JPEG_RGB;
    return s;
}

/* ---- Segments ------------------------------------------------------------------------------- */

/* A segment of that marker with n bytes at p. */
static g4_status g4_jpeg_segment(g4_jpeg *j, int code, const uint8_t *p, size_t n, g4_error *err)
{
    static const char xmp[] = "http://ns.adobe.com/xap/1.0/"; /* and a NUL */
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
        if (n >= 6 && !memcmp(p, "Exif\0", 6)) g4_turn_by_exif(&j->turn, p, n);
        if (n >= sizeof xmp && !memcmp(p, xmp, sizeof xmp)) g4_turn_by_xmp(&j->turn, p + sizeof xmp, n - sizeof xmp);
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

/* Has every coefficient come? */
static int g4_jpeg_is_whole(const g4_jpeg *j)
{
    for (int i = 0; i < j->n_comps; i++) {
        if (!j->comp[i].seen) return 0;
        for (int k = 0; j->progressive && k < G4_JPEG_BLOCK; k++)
            if (j->comp[i].missing[k]) return 0;
    }
    return j->n_comps > 0;
}

/* All segments up to the end of the picture. */
static g4_status g4_jpeg_segments(g4_jpeg *j, g4_error *err)
{
    for (;;) {
        const int code = g4_jpeg_marker(j);
        if (g4_halted(j->m->halt)) return g4_halt_check(j->m->halt, err);
        if (code < 0) return g4_jpeg_is_whole(j) ? G4_OK : g4_jpeg_truncated(j, err);
        if (code == G4_JPEG_EOI || (code == G4_JPEG_SOS && j->only_size)) return G4_OK;
        if (code == G4_JPEG_TEM || (code >= G4_JPEG_RST0 && code <= G4_JPEG_SOI)) continue; /* these have no length */
        const size_t n = j->size - j->pos >= 2 ? g4_be16(j->data + j->pos) : 0;             /* with its own two bytes */
        if (n < 2 || n > j->size - j->pos)
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: truncated in segment 0x%02x at byte %zu of %zu", code, j->pos,
                           j->size);
        const uint8_t *p = j->data + j->pos + 2;
        j->pos += n;
        const g4_status s = g4_jpeg_segment(j, code, p, n - 2, err);
        if (s || (!j->progressive && g4_jpeg_is_whole(j))) return s; /* nothing behind its last scan matters */
    }
}

/* Some scan must have had pixels; a component in none is grey, as in libjpeg. */
static g4_status g4_jpeg_check_seen(const g4_jpeg *j, g4_error *err)
{
    int seen = 0;
    for (int i = 0; i < j->n_comps; i++) seen |= j->comp[i].seen;
    return seen ? G4_OK : g4_fail(err, G4_ERR_FORMAT, "JPEG: no picture in it");
}

/* Begin to read a file: the tables that hold unless it has its own. */
static g4_status g4_jpeg_open(g4_jpeg *j, const g4_media_limits *m, const uint8_t *data, size_t size, int only_size,
                              g4_error *err)
{
    *j = (g4_jpeg) { .m = m, .data = data, .size = size, .pos = 2, .adobe = -1, .only_size = only_size };
    j->pace.halt = m->halt;
    j->huff = g4_alloc(m->a, 8, sizeof *j->huff);
    if (!j->huff) return g4_fail(err, G4_ERR_MEMORY, "JPEG: out of memory");
    return g4_jpeg_huff_tables(j, g4_jpeg_usual_tables, sizeof g4_jpeg_usual_tables, err);
}

g4_status g4_jpeg_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err)
{
    g4_jpeg j;
    g4_status s = g4_jpeg_open(&j, m, data, size, 1, err);
    if (!s) s = g4_jpeg_segments(&j, err);
    g4_free(m->a, j.huff);
    if (!s && !j.n_comps) s = g4_fail(err, G4_ERR_FORMAT, "JPEG: no picture in it");
    if (!s) g4_upright_size(j.w, j.h, g4_orientation(&j.turn), w, h);
    return s;
}

static void g4_jpeg_close(g4_jpeg *j)
{
    for (int i = 0; i < 4; i++) {
        g4_free(j->m->a, j->comp[i].plane);
        g4_free(j->m->a, j->comp[i].coef);
    }
    g4_free(j->m->a, j->huff);
}

/* All segments, and the samples of their picture. */
static g4_status g4_jpeg_read(g4_jpeg *j, g4_error *err)
{
    g4_status s = g4_jpeg_segments(j, err);
    if (!s) s = g4_jpeg_check_seen(j, err);
    if (!s && j->progressive) s = g4_jpeg_transform(j, err);
    return s;
}

g4_status g4_jpeg_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err)
{
    g4_jpeg j;
    memset(out, 0, sizeof *out);
    g4_status s = g4_jpeg_open(&j, m, data, size, 0, err);
    if (!s) s = g4_jpeg_read(&j, err);
    g4_jpeg_colours colours = g4_jpeg_guess_colours(&j);
    if (!s) s = g4_jpeg_fold(&j, &colours, err);
    if (!s) s = g4_pixels_alloc(m, "JPEG", (uint64_t)j.w, (uint64_t)j.h, out, err);
    if (!s) s = g4_jpeg_output(&j, colours, j.h, out->rgb, err);
    g4_jpeg_close(&j); /* before the picture is turned: that takes memory too */
    if (!s) s = g4_pixels_orient(m, out, g4_orientation(&j.turn), err);
    if (s) g4_pixels_free(m, out);
    return s;
}

g4_status g4_jpeg_part(const g4_media_limits *m, const g4_jpeg_stream *in, uint8_t *out, g4_error *err)
{
    g4_jpeg j;
    g4_status s = g4_jpeg_open(&j, m, in->tables, in->n_tables, 0, err);
    if (!s && in->tables) s = g4_jpeg_segments(&j, err);
    if (!s && j.n_comps) s = g4_fail(err, G4_ERR_FORMAT, "JPEG: a picture among the tables");
    j.data = in->data;
    j.size = in->size;
    j.pos = g4_min_size(2, in->size);
    j.is_plain = in->is_plain;
    j.want_w = in->w;
    j.want_h = in->max_h;
    if (!s) s = g4_jpeg_read(&j, err);
    if (!s && (j.h < in->h || j.n_comps != in->channels))
        s = g4_fail(err, G4_ERR_FORMAT, "JPEG: %d rows of %d samples a pixel, expected %d and %d", j.h, j.n_comps,
                    in->h, in->channels);
    if (!s) s = g4_jpeg_output(&j, in->is_ycc ? G4_JPEG_YCC : G4_JPEG_AS_IS, in->h, out, err);
    g4_jpeg_close(&j);
    return s;
}
