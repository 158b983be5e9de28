/* tga.c - Targa pictures with Pillow's pixels: palettes, colours of 15, 16, 24 and 32 bits, grey with and without
 * alpha, one bit, bare or as runs, from any corner. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#define G4_TGA_HEAD 18
#define G4_TGA_FOOT 26 /* bytes at the end: offset of an extension, offset of notes, a signature */

enum { G4_TGA_PALETTE = 1, G4_TGA_COLOUR, G4_TGA_GREY };

typedef struct {
    const uint8_t *data;
    size_t size, at;     /* at: the next pixel or run */
    uint32_t w, h, x, y; /* x, y: of the next pixel, in the order of the file */
    uint32_t kind, bits; /* bits of a pixel */
    int is_packed, is_opaque;
    int is_top_down, is_mirrored;
    uint8_t palette[256][3]; /* RGB, over white */
    g4_pace pace;
} g4_tga;

/* ---- Headers --------------------------------------------------------------------------------- */

/* A colour over white. Of 16 bits, the highest leaves it out; of 32, the highest byte is alpha. */
static void g4_tga_colour(const uint8_t *p, uint32_t bits, int is_opaque, uint8_t *dst)
{
    if (bits <= 16) {
        const uint32_t v = g4_le16(p), is_out = bits == 16 && !is_opaque && v >> 15;
        for (uint32_t c = 0; c < 3; c++) dst[c] = (uint8_t)(is_out ? 255 : (v >> (10 - 5 * c) & 31) * 255 / 31);
        return;
    }
    const uint32_t alpha = bits == 32 && !is_opaque ? p[3] : 255;
    for (int c = 0; c < 3; c++) dst[c] = alpha == 255 ? p[2 - c] : g4_over_white(p[2 - c], alpha);
}

/* The colours of entries first to first + n - 1; those that are not there are black. */
static g4_status g4_tga_palette(g4_tga *t, g4_error *err)
{
    const uint32_t first = g4_le16(t->data + 3), n = g4_le16(t->data + 5), bits = t->data[7];
    const size_t bytes = (bits + 7) / 8;
    if (t->size - t->at < bytes * n)
        return g4_fail(err, G4_ERR_FORMAT, "TGA: truncated: %u colours in %zu bytes", (unsigned)n, t->size - t->at);
    if (t->kind == G4_TGA_PALETTE && bits != 15 && bits != 16 && bits != 24 && bits != 32)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "TGA: a palette of %u bits", (unsigned)bits);
    for (uint32_t i = 0; t->kind == G4_TGA_PALETTE && i < n && first + i < 256; i++)
        g4_tga_colour(t->data + t->at + bytes * i, bits, 0, t->palette[first + i]);
    t->at += bytes * n;
    return G4_OK;
}

/* Does an extension of the file say that there is no alpha? */
static int g4_tga_is_opaque(const g4_tga *t)
{
    enum { ATTRIBUTES = 494 }; /* offset of that byte in the extension */
    if (t->size < G4_TGA_HEAD + G4_TGA_FOOT) return 0;
    const uint8_t *foot = t->data + t->size - G4_TGA_FOOT;
    const size_t at = g4_le32(foot);
    return !memcmp(foot + 8, "TRUEVISION-XFILE.", 18) && at > 0 && at < t->size && t->size - at > ATTRIBUTES &&
           t->data[at + ATTRIBUTES] == 0;
}

/* All that comes before the pixels. */
static g4_status g4_tga_open(const g4_media_limits *m, g4_tga *t, const uint8_t *data, size_t size, g4_error *err)
{
    *t = (g4_tga) { .data = data, .size = size, .at = G4_TGA_HEAD + (size_t)data[0], .pace = { m->halt, 0 } };
    t->kind = data[2] & 7;
    t->is_packed = data[2] & 8;
    t->w = g4_le16(data + 12);
    t->h = g4_le16(data + 14);
    t->bits = data[16];
    t->is_mirrored = data[17] & 0x10;
    t->is_top_down = data[17] & 0x20;
    t->is_opaque = g4_tga_is_opaque(t);
    if (t->at > size) return g4_fail(err, G4_ERR_FORMAT, "TGA: truncated header of %zu bytes", size);
    g4_status s = data[1] ? g4_tga_palette(t, err) : G4_OK;
    if (!s) s = g4_pixels_check(m, "TGA", t->w, t->h, err);
    if (s) return s;
    if (!t->is_packed && (t->bits == 1 ? (t->w + 7) / 8 : (uint64_t)t->w * ((t->bits + 7) / 8)) * t->h > size - t->at)
        return g4_fail(err, G4_ERR_FORMAT, "TGA: truncated: %u x %u pixels of %u bits in %zu bytes", (unsigned)t->w,
                       (unsigned)t->h, (unsigned)t->bits, size - t->at);
    return g4_pixels_check_bytes(m, "TGA", t->w, t->h, size, err);
}

/* ---- Pixels ---------------------------------------------------------------------------------- */

/* n pixels of one row, p_step bytes from one to the next, to RGB dst_step bytes from one to the next. */
static void g4_tga_convert(const g4_tga *t, const uint8_t *p, size_t p_step, uint8_t *dst, ptrdiff_t dst_step,
                           uint32_t n)
{
    for (uint32_t i = 0; i < n; i++, p += p_step, dst += dst_step) {
        if (t->kind == G4_TGA_COLOUR)
            g4_tga_colour(p, t->bits, t->is_opaque, dst);
        else if (t->kind == G4_TGA_PALETTE)
            memcpy(dst, t->palette[*p], 3);
        else
            memset(dst, t->bits == 16 ? g4_over_white(p[0], p[1]) : p[0], 3);
    }
}

/* n pixels where the last ones ended, those behind the picture left out. Nonzero: the call is halted. */
static int g4_tga_put(g4_tga *t, uint8_t *rgb, const uint8_t *p, size_t p_step, uint32_t n)
{
    while (n > 0 && t->y < t->h) {
        const uint32_t some = n < t->w - t->x ? n : t->w - t->x;
        const uint32_t x = t->is_mirrored ? t->w - 1 - t->x : t->x, y = t->is_top_down ? t->y : t->h - 1 - t->y;
        g4_tga_convert(t, p, p_step, rgb + 3 * ((size_t)y * t->w + x), t->is_mirrored ? -3 : 3, some);
        if (g4_pace_ends(&t->pace, 4 * (size_t)some)) return 1;
        p += p_step * some;
        n -= some;
        t->x += some;
        if (t->x < t->w) continue;
        t->x = 0;
        t->y++;
    }
    return 0;
}

/* A byte for each run: how many pixels less one, and whether they are all the same. */
static void g4_tga_runs(g4_tga *t, uint8_t *rgb)
{
    const size_t bytes = (t->bits + 7) / 8;
    while (t->y < t->h && t->at < t->size) {
        const uint32_t n = (t->data[t->at] & 127u) + 1;
        const int is_run = t->data[t->at++] & 128;
        const size_t used = is_run ? bytes : bytes * n;
        if (used > t->size - t->at || g4_tga_put(t, rgb, t->data + t->at, is_run ? 0 : bytes, n)) return;
        t->at += used;
    }
}

/* Rows of one bit a pixel, the left one highest. */
static void g4_tga_bits(g4_tga *t, uint8_t *rgb)
{
    static const uint8_t levels[2] = { 0, 255 };
    const size_t stride = (t->w + 7) / 8;
    while (t->y < t->h) {
        const uint8_t *row = t->data + t->at + stride * t->y;
        const uint32_t x = t->x;
        if (g4_tga_put(t, rgb, &levels[row[x / 8] >> (7 - x % 8) & 1], 0, 1)) return;
    }
}

/* ---- Pictures --------------------------------------------------------------------------------- */

g4_status g4_tga_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err)
{
    g4_tga t;
    const g4_status s = g4_tga_open(m, &t, data, size, err);
    if (s) return s;
    *w = (int)t.w;
    *h = (int)t.h;
    return G4_OK;
}

g4_status g4_tga_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err)
{
    g4_tga t;
    memset(out, 0, sizeof *out);
    g4_status s = g4_tga_open(m, &t, data, size, err);
    if (!s) s = g4_pixels_alloc(m, "TGA", t.w, t.h, out, err);
    if (s) return s;
    const size_t bytes = (t.bits + 7) / 8;
    if (t.is_packed)
        g4_tga_runs(&t, out->rgb);
    else if (t.bits == 1)
        g4_tga_bits(&t, out->rgb);
    else
        for (const uint8_t *row = data + t.at; t.y < t.h; row += bytes * t.w)
            if (g4_tga_put(&t, out->rgb, row, bytes, t.w)) break;
    s = g4_halt_check(m->halt, err);
    if (!s && t.y < t.h) s = g4_fail(err, G4_ERR_FORMAT, "TGA: truncated: %u of %u rows", (unsigned)t.y, (unsigned)t.h);
    if (s) g4_pixels_free(m, out);
    return s;
}
