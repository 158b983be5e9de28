/* dds.c - DirectDraw surfaces, which hold textures, with Pillow's pixels: the first picture of the file, in blocks
 * (blocks.c), as colours by masks, grey with and without alpha, or with a palette. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>

/* Offsets of the file's head, "DDS " included, whose numbers have 4 bytes each. */
enum {
    G4_DDS_HEIGHT = 12,
    G4_DDS_WIDTH = 16,
    G4_DDS_FLAGS = 80,
    G4_DDS_NAME = 84,
    G4_DDS_BITS = 88,
    G4_DDS_MASKS = 92
};
#define G4_DDS_HEAD 128u
#define G4_DDS_HEAD_10 20u /* bytes more, where the name is "DX10": the first number is a DXGI_FORMAT */
#define G4_DDS_PALETTE 1024u
enum {
    G4_DDS_HAS_ALPHA = 1,
    G4_DDS_IS_NAMED = 4,
    G4_DDS_IS_INDEXED = 0x20,
    G4_DDS_IS_RGB = 0x40,
    G4_DDS_IS_GREY = 0x20000
};

typedef struct {
    const uint8_t *data; /* pixels, or blocks */
    size_t size;
    uint32_t w, h;
    int coding;                       /* of blocks; 0: there are none */
    int is_premultiplied;             /* colours with their alpha */
    uint32_t bytes;                   /* of a pixel */
    uint32_t mask[4], low[4], top[4]; /* of red, green, blue and alpha: its bits, the lowest one, its largest value */
    const uint8_t *palette;           /* (256, RGBA); NULL: there is none */
    uint8_t levels[4][256];           /* of the values of a mask, as far as they are below 256 */
} g4_dds;

/* ---- Headers --------------------------------------------------------------------------------- */

static void g4_dds_masks(g4_dds *d, uint32_t bytes, const uint32_t masks[4])
{
    d->bytes = bytes;
    for (int c = 0; c < 4; c++) {
        d->mask[c] = masks[c];
        d->low[c] = 0;
        while (masks[c] && !(masks[c] >> d->low[c] & 1)) d->low[c]++;
        d->top[c] = masks[c] >> d->low[c];
    }
}

/* A kind of Direct3D 9, by its name. */
static g4_status g4_dds_by_name(g4_dds *d, const uint8_t *name, g4_error *err)
{
    static const struct {
        char name[5];
        uint8_t coding, is_premultiplied;
    } kinds[] = {
        { "DXT1", G4_BC1, 0 }, { "DXT2", G4_BC2, 1 }, { "DXT3", G4_BC2, 0 }, { "DXT4", G4_BC3, 1 },
        { "DXT5", G4_BC3, 0 }, { "ATI1", G4_BC4, 0 }, { "BC4U", G4_BC4, 0 }, { "BC5S", G4_BC5_SIGNED, 0 },
        { "ATI2", G4_BC5, 0 }, { "BC5U", G4_BC5, 0 },
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (memcmp(name, kinds[i].name, 4) != 0) continue;
        d->coding = kinds[i].coding;
        d->is_premultiplied = kinds[i].is_premultiplied;
        return G4_OK;
    }
    return g4_fail(err, G4_ERR_UNSUPPORTED, "DDS: pixels of kind %02x %02x %02x %02x are not read", name[0], name[1],
                   name[2], name[3]);
}

/* A kind of Direct3D 10, by its DXGI_FORMAT; those without a type or of sRGB are like the others. */
static g4_status g4_dds_by_number(g4_dds *d, uint32_t number, g4_error *err)
{
    static const struct {
        uint8_t from, to, coding;
    } kinds[] = { { 70, 72, G4_BC1 }, { 73, 75, G4_BC2 },        { 76, 78, G4_BC3 },
                  { 79, 80, G4_BC4 }, { 82, 83, G4_BC5 },        { 84, 84, G4_BC5_SIGNED },
                  { 94, 95, G4_BC6 }, { 96, 96, G4_BC6_SIGNED }, { 97, 99, G4_BC7 } };
    static const uint32_t rgba[4] = { 0xff, 0xff00, 0xff0000, 0xff000000 },
                          bgra[4] = { 0xff0000, 0xff00, 0xff, 0xff000000 };
    static const uint32_t bgrx[4] = { 0xff0000, 0xff00, 0xff, 0 };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (number >= kinds[i].from && number <= kinds[i].to) d->coding = kinds[i].coding;
    if (number >= 27 && number <= 29) g4_dds_masks(d, 4, rgba);
    if (number == 87 || number == 90 || number == 91) g4_dds_masks(d, 4, bgra);
    if (number == 88 || number == 92 || number == 93) g4_dds_masks(d, 4, bgrx);
    if (d->coding || d->bytes) return G4_OK;
    return g4_fail(err, G4_ERR_UNSUPPORTED, "DDS: pixels of DXGI_FORMAT %" PRIu32 " are not read", number);
}

/* Pixels that are not named. */
static g4_status g4_dds_by_flags(g4_dds *d, const uint8_t *head, uint32_t flags, g4_error *err)
{
    static const uint32_t grey[4] = { 0xff, 0xff, 0xff, 0 }, grey_alpha[4] = { 0xff, 0xff, 0xff, 0xff00 };
    const uint32_t bits = g4_le32(head + G4_DDS_BITS);
    const int has_alpha = (flags & G4_DDS_HAS_ALPHA) != 0;
    uint32_t masks[4] = { 0 };
    for (uint32_t c = 0; c < (has_alpha ? 4 : 3); c++) masks[c] = g4_le32(head + G4_DDS_MASKS + 4 * c);
    if (flags & G4_DDS_IS_RGB && bits >= 8 && bits < 40) {
        g4_dds_masks(d, bits / 8, masks);
        return G4_OK;
    }
    if (flags & G4_DDS_IS_GREY && (bits == 8 || (bits == 16 && has_alpha))) {
        g4_dds_masks(d, bits / 8, bits == 8 ? grey : grey_alpha);
        return G4_OK;
    }
    if (flags & G4_DDS_IS_INDEXED && !(flags & (G4_DDS_IS_RGB | G4_DDS_IS_GREY))) {
        d->palette = head + G4_DDS_HEAD;
        d->bytes = 1;
        return G4_OK;
    }
    return g4_fail(err, G4_ERR_UNSUPPORTED, "DDS: pixels of %" PRIu32 " bits with flags %" PRIx32 " are not read", bits,
                   flags);
}

/* Is all of it there? */
static g4_status g4_dds_check(const g4_media_limits *m, const g4_dds *d, g4_error *err)
{
    const g4_status s = g4_pixels_check(m, "DDS", d->w, d->h, err);
    if (s) return s;
    const uint64_t blocks = (((uint64_t)d->w + 3) / 4) * (((uint64_t)d->h + 3) / 4);
    const uint64_t wanted = d->coding ? blocks * g4_block_bytes(d->coding) : (uint64_t)d->w * d->h * d->bytes;
    if (wanted <= d->size) return G4_OK;
    return g4_fail(err, G4_ERR_FORMAT,
                   "DDS: truncated: %" PRIu32 " x %" PRIu32 " pixels in %zu bytes, expected %" PRIu64, d->w, d->h,
                   d->size, wanted);
}

static g4_status g4_dds_open(const g4_media_limits *m, g4_dds *d, const uint8_t *data, size_t size, g4_error *err)
{
    *d = (g4_dds) { .data = data };
    if (size < G4_DDS_HEAD || g4_le32(data + 4) != G4_DDS_HEAD - 4)
        return g4_fail(err, G4_ERR_FORMAT, "DDS: no head of %u bytes in %zu", G4_DDS_HEAD, size);
    const uint32_t flags = g4_le32(data + G4_DDS_FLAGS);
    const int is_named = flags & G4_DDS_IS_NAMED && !(flags & (G4_DDS_IS_RGB | G4_DDS_IS_GREY | G4_DDS_IS_INDEXED));
    const int is_10 = is_named && !memcmp(data + G4_DDS_NAME, "DX10", 4);
    if (is_10 && size < G4_DDS_HEAD + G4_DDS_HEAD_10)
        return g4_fail(err, G4_ERR_FORMAT, "DDS: truncated head of %zu bytes", size);
    d->h = g4_le32(data + G4_DDS_HEIGHT);
    d->w = g4_le32(data + G4_DDS_WIDTH);
    const g4_status s = is_10      ? g4_dds_by_number(d, g4_le32(data + G4_DDS_HEAD), err)
                        : is_named ? g4_dds_by_name(d, data + G4_DDS_NAME, err)
                                   : g4_dds_by_flags(d, data, flags, err);
    if (s) return s;
    const size_t head = G4_DDS_HEAD + (is_10 ? G4_DDS_HEAD_10 : 0) + (d->palette ? G4_DDS_PALETTE : 0);
    d->data = data + g4_min_size(head, size);
    d->size = size - g4_min_size(head, size);
    return g4_dds_check(m, d, err);
}

/* ---- Pixels ---------------------------------------------------------------------------------- */

static uint8_t g4_dds_level(uint32_t v, uint32_t top) { return (uint8_t)(top ? (double)v / top * 255 : 0); }

static void g4_dds_levels(g4_dds *d)
{
    for (int c = 0; c < 4; c++)
        for (uint32_t v = 0; v < 256 && v <= d->top[c]; v++) d->levels[c][v] = g4_dds_level(v, d->top[c]);
}

/* RGBA to RGB over white. */
static void g4_dds_put(const g4_dds *d, const uint8_t *rgba, uint8_t *rgb)
{
    for (int c = 0; c < 3; c++)
        rgb[c] = d->is_premultiplied ? g4_clamp_u8(rgba[c] + 255 - rgba[3])
                 : rgba[3] == 255    ? rgba[c]
                                     : g4_over_white(rgba[c], rgba[3]);
}

static void g4_dds_pixel(const g4_dds *d, const uint8_t *p, uint8_t rgba[4])
{
    uint32_t v = 0;
    if (d->palette) {
        memcpy(rgba, d->palette + 4 * (size_t)*p, 4);
        return;
    }
    for (uint32_t i = 0; i < d->bytes; i++) v |= (uint32_t)p[i] << 8 * i;
    for (int c = 0; c < 4; c++) {
        const uint32_t part = (v & d->mask[c]) >> d->low[c];
        rgba[c] = d->top[c] < 256 ? d->levels[c][part] : g4_dds_level(part, d->top[c]);
    }
}

static g4_status g4_dds_pixels(const g4_media_limits *m, const g4_dds *d, int has_alpha, uint8_t *rgb, g4_error *err)
{
    g4_pace pace = { m->halt, 0 };
    const size_t n = (size_t)d->w * d->h;
    for (size_t i = 0; i < n; i++) {
        uint8_t rgba[4];
        g4_dds_pixel(d, d->data + d->bytes * i, rgba);
        if (!has_alpha) rgba[3] = 255;
        g4_dds_put(d, rgba, rgb + 3 * i);
        if (g4_pace_ends(&pace, 8)) return g4_halt_check(m->halt, err);
    }
    return G4_OK;
}

static g4_status g4_dds_blocks(const g4_media_limits *m, const g4_dds *d, uint8_t *rgb, g4_error *err)
{
    g4_pace pace = { m->halt, 0 };
    const uint8_t *p = d->data;
    for (size_t y = 0; y < d->h; y += 4) {
        for (size_t x = 0; x < d->w; x += 4, p += g4_block_bytes(d->coding)) {
            uint8_t rgba[16][4];
            g4_block_decode(d->coding, p, rgba);
            for (size_t i = 0; i < 16; i++)
                if (x + i % 4 < d->w && y + i / 4 < d->h)
                    g4_dds_put(d, rgba[i], rgb + 3 * ((y + i / 4) * d->w + x + i % 4));
            if (g4_pace_ends(&pace, 64)) return g4_halt_check(m->halt, err);
        }
    }
    return G4_OK;
}

g4_status g4_dds_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err)
{
    g4_dds d;
    const g4_status s = g4_dds_open(m, &d, data, size, err);
    if (s) return s;
    *w = (int)d.w;
    *h = (int)d.h;
    return G4_OK;
}

g4_status g4_dds_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err)
{
    g4_dds d;
    memset(out, 0, sizeof *out);
    g4_status s = g4_dds_open(m, &d, data, size, err);
    if (!s) s = g4_pixels_alloc(m, "DDS", d.w, d.h, out, err);
    if (s) return s;
    g4_dds_levels(&d);
    const int has_alpha = d.palette || d.mask[3] || (g4_le32(data + G4_DDS_FLAGS) & G4_DDS_HAS_ALPHA);
    s = d.coding ? g4_dds_blocks(m, &d, out->rgb, err) : g4_dds_pixels(m, &d, has_alpha, out->rgb, err);
    if (s) g4_pixels_free(m, out);
    return s;
}
