/* bmp.c - Windows and OS/2 bitmaps: 1, 4, 8, 16, 24 and 32 bits, palettes, run lengths, and the bit fields that Pillow
 * knows, with its pixels: levels of 5 and 6 bits rounded down, a fourth byte that is alpha only where fields say so. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>

#define G4_BMP_FILE_HEAD 14 /* bytes before the picture's own header; in icons, there are none */
#define G4_BMP_CORE_HEAD 12 /* bytes of that of OS/2 1, the shortest */

enum { G4_BMP_RAW, G4_BMP_RLE8, G4_BMP_RLE4, G4_BMP_FIELDS }; /* compression */

typedef struct {
    const uint8_t *data;
    size_t size, pixels; /* where the pixels begin */
    uint32_t w, h, bits, compression, n_colours;
    int is_top_down;
    uint32_t fields[4];      /* masks of red, green, blue, alpha */
    int place[4];            /* bytes of them in a pixel of 32 bits; the last -1: no alpha */
    uint8_t palette[256][3]; /* RGB */
    g4_pace pace;
} g4_bmp;

/* ---- Headers --------------------------------------------------------------------------------- */

/* The fields of 32 bits must be whole bytes. 0: they are not. */
static int g4_bmp_places(g4_bmp *b)
{
    static const int usual[4] = { 2, 1, 0, 3 };
    const int none = !b->fields[0] && !b->fields[1] && !b->fields[2] && !b->fields[3];
    for (int c = 0; c < 4; c++) {
        const uint32_t f = b->fields[c];
        b->place[c] = none ? usual[c] : f == 0xff ? 0 : f == 0xff00 ? 1 : f == 0xff0000 ? 2 : f == 0xff000000u ? 3 : -1;
        if (b->place[c] < 0 && (c < 3 || f != 0)) return 0;
    }
    return 1;
}

static g4_status g4_bmp_fields(g4_bmp *b, const uint8_t *head, uint32_t head_bytes, g4_error *err)
{
    static const uint32_t usual_16[3] = { 0x7c00, 0x3e0, 0x1f }, six_green[3] = { 0xf800, 0x7e0, 0x1f };
    static const uint32_t usual_32[4] = { 0xff0000, 0xff00, 0xff, 0 };
    memcpy(b->fields, b->bits == 16 ? usual_16 : usual_32, sizeof usual_16);
    if (b->compression == G4_BMP_FIELDS) {
        const size_t at = (size_t)(head - b->data) + 40; /* in a longer header, or behind this one */
        const uint32_t n = head_bytes >= 56 ? 4 : 3;
        if (b->size - at < 16) return g4_fail(err, G4_ERR_FORMAT, "BMP: truncated header of %zu bytes", b->size);
        for (uint32_t c = 0; c < n; c++) b->fields[c] = g4_le32(b->data + at + 4 * c);
    }
    const int known = b->bits == 16   ? !memcmp(b->fields, usual_16, 12) || !memcmp(b->fields, six_green, 12)
                      : b->bits == 32 ? g4_bmp_places(b)
                                      : b->compression != G4_BMP_FIELDS || !memcmp(b->fields, usual_32, 12);
    return known ? G4_OK
                 : g4_fail(err, G4_ERR_UNSUPPORTED, "BMP: bit fields %08x, %08x, %08x, %08x of %u bits",
                           (unsigned)b->fields[0], (unsigned)b->fields[1], (unsigned)b->fields[2],
                           (unsigned)b->fields[3], (unsigned)b->bits);
}

/* Colours of `bytes` bytes each, from offset `at` on. What is beyond them is black, or goes on as grey levels do. */
static void g4_bmp_palette(g4_bmp *b, size_t at, size_t bytes)
{
    uint32_t i = 0;
    int is_grey = 1;
    for (; i < b->n_colours && i < 256 && b->size - at >= bytes; i++, at += bytes) {
        for (int c = 0; c < 3; c++) {
            b->palette[i][c] = b->data[at + 2 - (size_t)c];
            is_grey &= b->palette[i][c] == i;
        }
    }
    for (; is_grey && i < 256; i++) memset(b->palette[i], (int)i, 3);
}

/* The numbers of a header of head_bytes bytes. */
static void g4_bmp_numbers(g4_bmp *b, const uint8_t *head, uint32_t head_bytes)
{
    if (head_bytes == G4_BMP_CORE_HEAD) {
        b->w = g4_le16(head + 4);
        b->h = g4_le16(head + 6);
        b->bits = g4_le16(head + 10);
        return;
    }
    b->w = g4_le32(head + 4);
    b->h = g4_le32(head + 8);
    b->is_top_down = head[11] == 0xff;
    if (b->is_top_down) b->h = 0u - b->h;
    b->bits = g4_le16(head + 14);
    b->compression = g4_le32(head + 16);
    b->n_colours = g4_le32(head + 32);
}

static uint64_t g4_bmp_stride(const g4_bmp *b) { return ((uint64_t)b->w * b->bits + 31) / 32 * 4; }

/* The picture's own header at `at`, and the palette behind it. b->pixels: where the pixels are said to begin; 0: behind
 * all headers. is_part: of an icon, which counts a mask as more rows. */
static g4_status g4_bmp_head(const g4_media_limits *m, g4_bmp *b, size_t at, int is_part, g4_error *err)
{
    const uint8_t *head = b->data + at;
    if (b->size < at + G4_BMP_CORE_HEAD || b->size - at < g4_le32(head))
        return g4_fail(err, G4_ERR_FORMAT, "BMP: truncated header of %zu bytes", b->size);
    const uint32_t n = g4_le32(head);
    if (n != G4_BMP_CORE_HEAD && n != 40 && n != 52 && n != 56 && n != 64 && n != 108 && n != 124)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "BMP: header of %u bytes, expected 12, 40, 52, 56, 64, 108 or 124",
                       (unsigned)n);
    g4_bmp_numbers(b, head, n);
    if (is_part) b->h /= 2;
    if (b->compression > G4_BMP_FIELDS || (b->bits != 1 && b->bits != 4 && b->bits % 8 != 0) || b->bits > 32 ||
        b->bits == 0 || ((b->compression == G4_BMP_RLE8 || b->compression == G4_BMP_RLE4) && b->bits > 8) ||
        (b->compression == G4_BMP_FIELDS && b->bits < 16))
        return g4_fail(err, G4_ERR_UNSUPPORTED, "BMP: %u bits with compression %u", (unsigned)b->bits,
                       (unsigned)b->compression);
    g4_status s = g4_bmp_fields(b, head, n, err);
    if (!s) s = g4_pixels_check(m, "BMP", b->w, b->h, err);
    if (s) return s;
    const size_t bytes = n == G4_BMP_CORE_HEAD ? 3 : 4, behind = at + n;
    if (b->bits <= 8) {
        if (b->n_colours == 0) b->n_colours = 1u << b->bits;
        g4_bmp_palette(b, behind, bytes);
    }
    if (b->pixels == 0) b->pixels = behind + (b->compression == G4_BMP_FIELDS && n < 52 ? 12 : 0);
    if (b->pixels == behind && b->bits <= 8) b->pixels += bytes * b->n_colours; /* as some files mean it */
    if (b->pixels > b->size) b->pixels = b->size;
    if (b->compression != G4_BMP_RLE8 && b->compression != G4_BMP_RLE4 &&
        g4_bmp_stride(b) * (b->h - 1) + ((uint64_t)b->w * b->bits + 7) / 8 > b->size - b->pixels)
        return g4_fail(err, G4_ERR_FORMAT, "BMP: truncated: %u x %u pixels of %u bits in %zu bytes", (unsigned)b->w,
                       (unsigned)b->h, (unsigned)b->bits, b->size - b->pixels);
    return g4_pixels_check_bytes(m, "BMP", b->w, b->h, b->size, err);
}

/* All that comes before the pixels. */
static g4_status g4_bmp_open(const g4_media_limits *m, g4_bmp *b, const uint8_t *data, size_t size, g4_error *err)
{
    *b = (g4_bmp) { .data = data, .size = size, .pace = { m->halt, 0 } };
    if (size < G4_BMP_FILE_HEAD) return g4_fail(err, G4_ERR_FORMAT, "BMP: truncated header of %zu bytes", size);
    b->pixels = g4_le32(data + 10);
    return g4_bmp_head(m, b, G4_BMP_FILE_HEAD, 0, err);
}

static g4_status g4_bmp_open_part(const g4_media_limits *m, g4_bmp *b, const uint8_t *data, size_t size, g4_error *err)
{
    *b = (g4_bmp) { .data = data, .size = size, .pace = { m->halt, 0 } };
    return g4_bmp_head(m, b, 0, 1, err);
}

/* ---- Rows ------------------------------------------------------------------------------------ */

static void g4_bmp_indices(const g4_bmp *b, const uint8_t *row, uint8_t *dst)
{
    const uint32_t bits = b->bits, mask = (1u << bits) - 1;
    for (uint32_t x = 0; x < b->w; x++, dst += 3) {
        const uint64_t bit = (uint64_t)x * bits;
        memcpy(dst, b->palette[(uint32_t)row[bit >> 3] >> (8 - bits - (bit & 7)) & mask], 3);
    }
}

static void g4_bmp_words(const g4_bmp *b, const uint8_t *row, uint8_t *dst) /* of 16 bits */
{
    const uint32_t green = b->fields[1] == 0x7e0 ? 63 : 31, red_shift = green == 63 ? 11 : 10;
    for (uint32_t x = 0; x < b->w; x++, row += 2, dst += 3) {
        const uint32_t v = g4_le16(row);
        dst[0] = (uint8_t)((v >> red_shift & 31) * 255 / 31);
        dst[1] = (uint8_t)((v >> 5 & green) * 255 / green);
        dst[2] = (uint8_t)((v & 31) * 255 / 31);
    }
}

static void g4_bmp_bytes(const g4_bmp *b, const uint8_t *row, uint8_t *dst) /* of 24 or 32 bits */
{
    static const int bgr[4] = { 2, 1, 0, -1 };
    const int *place = b->bits == 32 ? b->place : bgr;
    const uint32_t step = b->bits / 8;
    for (uint32_t x = 0; x < b->w; x++, row += step, dst += 3) {
        const uint32_t alpha = place[3] < 0 ? 255 : row[place[3]];
        for (int c = 0; c < 3; c++) dst[c] = alpha == 255 ? row[place[c]] : g4_over_white(row[place[c]], alpha);
    }
}

static uint8_t *g4_bmp_place(const g4_bmp *b, uint8_t *rgb, uint32_t y) /* row y of the file */
{
    return rgb + 3 * (size_t)b->w * (b->is_top_down ? y : b->h - 1 - y);
}

static int g4_bmp_raw_rows(g4_bmp *b, uint8_t *rgb)
{
    for (uint32_t y = 0; y < b->h; y++) {
        const uint8_t *row = b->data + b->pixels + (size_t)g4_bmp_stride(b) * y;
        uint8_t *dst = g4_bmp_place(b, rgb, y);
        if (b->bits <= 8)
            g4_bmp_indices(b, row, dst);
        else if (b->bits == 16)
            g4_bmp_words(b, row, dst);
        else
            g4_bmp_bytes(b, row, dst);
        if (g4_pace_ends(&b->pace, 3 * (size_t)b->w)) return 1;
    }
    return 0;
}

/* ---- Run lengths ------------------------------------------------------------------------------ */

/* Pixels in the order of the file, of which n are there. */
typedef struct {
    g4_bmp *b;
    uint8_t *rgb;
    uint64_t n, total;
} g4_bmp_runs;

static void g4_bmp_put(g4_bmp_runs *r, uint32_t index)
{
    if (r->n == r->total) return;
    const uint32_t w = r->b->w;
    memcpy(g4_bmp_place(r->b, r->rgb, (uint32_t)(r->n / w)) + 3 * (r->n % w), r->b->palette[index], 3);
    r->n++;
}

/* Pixel i of a literal or a run whose bytes begin at p. */
static uint32_t g4_bmp_index(const g4_bmp *b, const uint8_t *p, uint32_t i)
{
    if (b->compression == G4_BMP_RLE8) return p[i];
    return i & 1 ? p[i / 2] & 15 : p[i / 2] >> 4;
}

/* Pixels one after the other, whatever rows a run crosses, as Pillow has them: its runs of one value end with a row,
 * and nothing else does. x: columns of the row so far, by its count. */
static void g4_bmp_run_rows(g4_bmp_runs *r)
{
    g4_bmp *b = r->b;
    uint64_t x = 0;
    if (b->w == 0) return; /* it was refused before, which analysers do not see */
    for (size_t at = b->pixels; r->n < r->total && b->size - at >= 2;) {
        const uint32_t n = b->data[at], value = b->data[at + 1];
        if (g4_pace_ends(&b->pace, 256)) return;
        at += 2;
        if (n > 0) {
            const uint32_t count = x >= b->w ? 0 : (uint32_t)(n < b->w - x ? n : b->w - x);
            const uint8_t two[2] = { (uint8_t)value, (uint8_t)value };
            for (uint32_t i = 0; i < count; i++) g4_bmp_put(r, g4_bmp_index(b, two, i & 1));
            x += count;
        } else if (value == 0) { /* the row ends */
            while (r->n % b->w != 0) g4_bmp_put(r, 0);
            x = 0;
        } else if (value == 1) {
            return;
        } else if (value == 2) { /* go right and on by rows */
            if (b->size - at < 2) return;
            uint64_t skip = b->data[at] + (uint64_t)b->data[at + 1] * b->w;
            for (; skip > 0 && r->n < r->total && !g4_pace_ends(&b->pace, 4); skip--) g4_bmp_put(r, 0);
            x = r->n % b->w;
            at += 2;
        } else {
            const uint32_t count = (uint32_t)(value < r->total - r->n ? value : r->total - r->n);
            const size_t bytes = b->compression == G4_BMP_RLE8 ? count : (count + 1) / 2;
            if (bytes > b->size - at) return;
            for (uint32_t i = 0; i < count; i++) g4_bmp_put(r, g4_bmp_index(b, b->data + at, i));
            at += bytes;
            at = g4_min_size(b->size, at + (at & 1));
            x += value;
        }
    }
}

/* ---- Pictures --------------------------------------------------------------------------------- */

g4_status g4_bmp_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err)
{
    g4_bmp b;
    const g4_status s = g4_bmp_open(m, &b, data, size, err);
    if (s) return s;
    *w = (int)b.w;
    *h = (int)b.h;
    return G4_OK;
}

/* The pixels of what was opened. */
static g4_status g4_bmp_pixels(const g4_media_limits *m, g4_bmp *b, g4_pixels *out, g4_error *err)
{
    g4_status s = g4_pixels_alloc(m, "BMP", b->w, b->h, out, err);
    if (s) return s;
    if (b->compression == G4_BMP_RLE8 || b->compression == G4_BMP_RLE4) {
        g4_bmp_runs r = { b, out->rgb, 0, (uint64_t)b->w * b->h };
        g4_bmp_run_rows(&r);
        s = g4_halt_check(m->halt, err);
        if (!s && r.n < r.total)
            s = g4_fail(err, G4_ERR_FORMAT, "BMP: truncated: %" PRIu64 " of %" PRIu64 " pixels", r.n, r.total);
    } else if (g4_bmp_raw_rows(b, out->rgb)) {
        s = g4_halt_check(m->halt, err);
    }
    if (s) g4_pixels_free(m, out);
    return s;
}

g4_status g4_bmp_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err)
{
    g4_bmp b;
    memset(out, 0, sizeof *out);
    const g4_status s = g4_bmp_open(m, &b, data, size, err);
    return s ? s : g4_bmp_pixels(m, &b, out, err);
}

g4_status g4_bmp_part_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err)
{
    g4_bmp b;
    const g4_status s = g4_bmp_open_part(m, &b, data, size, err);
    if (s) return s;
    *w = (int)b.w;
    *h = (int)b.h;
    return G4_OK;
}

g4_status g4_bmp_part(const g4_media_limits *m, const uint8_t *data, size_t size, int *has_alpha, g4_pixels *out,
                      g4_error *err)
{
    g4_bmp b;
    memset(out, 0, sizeof *out);
    const g4_status s = g4_bmp_open_part(m, &b, data, size, err);
    if (s) return s;
    *has_alpha &= b.bits == 32;
    b.place[3] = *has_alpha ? 3 : -1;
    return g4_bmp_pixels(m, &b, out, err);
}
