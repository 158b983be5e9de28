/* pcx.c - pictures of PC Paintbrush, and DCX, a list of them of which the first one counts: of 1 to 8 bits in one to
 * four planes with a palette, and RGB, with Pillow's pixels. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#define G4_PCX_HEAD 128u
#define G4_PCX_PALETTE 769u /* bytes at the end of a file of 256 colours: 12, then RGB */
/* Offsets in the head. */
enum {
    G4_PCX_BITS = 3,
    G4_PCX_LEFT = 4,
    G4_PCX_TOP = 6,
    G4_PCX_RIGHT = 8,
    G4_PCX_BOTTOM = 10,
    G4_PCX_COLOURS = 16,
    G4_PCX_PLANES = 65,
    G4_PCX_STRIDE = 66
};

typedef struct {
    const uint8_t *data;
    size_t size, at;             /* at: of the next byte of pixels */
    uint32_t w, h, bits, planes; /* bits: of a sample in each plane */
    size_t stride;               /* bytes of a row in a plane */
    const uint8_t *palette;      /* RGB; NULL: grey, or colours */
    uint8_t *line;               /* (planes, stride) */
} g4_pcx;

/* The first picture of a list: its places are numbers of 4 bytes, with a 0 behind the last one. */
static g4_status g4_pcx_of_list(const uint8_t **data, size_t *size, g4_error *err)
{
    if (*size < 4 || !g4_is_dcx(*data, *size)) return G4_OK;
    const size_t first = *size < 8 ? 0 : g4_le32(*data + 4), second = *size < 12 ? 0 : g4_le32(*data + 8);
    const size_t last = second > first ? second : first;
    if (first < 8 || last >= *size)
        return g4_fail(err, G4_ERR_FORMAT, "DCX: truncated: a picture at byte %zu of %zu", last, *size);
    if (second > first) *size = second;
    *data += first;
    *size -= first;
    return G4_OK;
}

static void g4_pcx_find_palette(g4_pcx *p)
{
    const uint32_t depth = p->bits * p->planes;
    if (depth > 1 && depth <= 4) p->palette = p->data + G4_PCX_COLOURS;
    if (depth == 8 && p->size >= G4_PCX_HEAD + G4_PCX_PALETTE && p->data[p->size - G4_PCX_PALETTE] == 12)
        p->palette = p->data + p->size - G4_PCX_PALETTE + 1;
}

static g4_status g4_pcx_open(const g4_media_limits *m, g4_pcx *p, const uint8_t *data, size_t size, g4_error *err)
{
    *p = (g4_pcx) { .at = G4_PCX_HEAD };
    g4_status s = g4_pcx_of_list(&data, &size, err);
    if (s) return s;
    if (size < G4_PCX_HEAD || data[0] != 10)
        return g4_fail(err, G4_ERR_FORMAT, "PCX: no head of %u bytes in %zu", G4_PCX_HEAD, size);
    const uint32_t left = g4_le16(data + G4_PCX_LEFT), right = g4_le16(data + G4_PCX_RIGHT);
    const uint32_t top = g4_le16(data + G4_PCX_TOP), bottom = g4_le16(data + G4_PCX_BOTTOM);
    p->data = data;
    p->size = size;
    p->bits = data[G4_PCX_BITS];
    p->planes = data[G4_PCX_PLANES];
    const uint32_t depth = p->bits * p->planes;
    const int is_rgb = p->bits == 8 && p->planes == 3;
    if ((p->bits != 1 && p->bits != 2 && p->bits != 4 && p->bits != 8) || depth == 0 ||
        ((depth > 4 && depth != 8) && !is_rgb))
        return g4_fail(err, G4_ERR_UNSUPPORTED, "PCX: %u planes of %u bits are not read", (unsigned)p->planes,
                       (unsigned)p->bits);
    if (left > right || top > bottom)
        return g4_fail(err, G4_ERR_FORMAT, "PCX: from column %u to %u, from row %u to %u", (unsigned)left,
                       (unsigned)right, (unsigned)top, (unsigned)bottom);
    p->w = right - left + 1;
    p->h = bottom - top + 1;
    p->stride = ((size_t)p->w * p->bits + 7) / 8;
    if (p->stride != g4_le16(data + G4_PCX_STRIDE)) p->stride += p->stride % 2; /* what the head says is often wrong */
    g4_pcx_find_palette(p);
    s = g4_pixels_check(m, "PCX", p->w, p->h, err);
    return s ? s : g4_pixels_check_bytes(m, "PCX", p->w, p->h, size, err);
}

/* A row of all planes: bytes, and runs of up to 63, which end with it. Nonzero: the data have ended. */
static int g4_pcx_unpack(g4_pcx *p)
{
    const size_t size = p->stride * p->planes;
    for (size_t x = 0; x < size;) {
        if (p->at == p->size) return 1;
        uint32_t v = p->data[p->at++];
        size_t n = 1;
        if (v >= 0xc0) {
            if (p->at == p->size) return 1;
            n = g4_min_size(v & 63, size - x);
            v = p->data[p->at++];
        }
        memset(p->line + x, (int)v, n);
        x += n;
    }
    return 0;
}

static void g4_pcx_convert(const g4_pcx *p, uint8_t *rgb)
{
    const uint32_t top = (1u << p->bits) - 1;
    for (size_t x = 0; x < p->w; x++, rgb += 3) {
        uint32_t v = 0;
        for (size_t k = 0; k < p->planes; k++) {
            const uint8_t *plane = p->line + k * p->stride;
            const size_t bit = x * p->bits;
            if (p->planes == 3 && p->bits == 8)
                rgb[k] = plane[x];
            else
                v |= ((uint32_t)plane[bit / 8] >> (8 - p->bits - bit % 8) & top) << k * p->bits;
        }
        if (p->palette)
            memcpy(rgb, p->palette + (size_t)3 * v, 3);
        else if (p->planes != 3)
            memset(rgb, p->bits == 1 && p->planes == 1 ? (v ? 255 : 0) : (int)v, 3);
    }
}

static g4_status g4_pcx_rows(const g4_media_limits *m, g4_pcx *p, uint8_t *rgb, g4_error *err)
{
    g4_pace pace = { m->halt, 0 };
    for (uint32_t y = 0; y < p->h; y++) {
        if (g4_pcx_unpack(p))
            return g4_fail(err, G4_ERR_FORMAT, "PCX: truncated: %u of %u rows", (unsigned)y, (unsigned)p->h);
        g4_pcx_convert(p, rgb + (size_t)3 * p->w * y);
        if (g4_pace_ends(&pace, 4 * (size_t)p->w * p->planes)) return g4_halt_check(m->halt, err);
    }
    return G4_OK;
}

g4_status g4_pcx_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err)
{
    g4_pcx p;
    const g4_status s = g4_pcx_open(m, &p, data, size, err);
    if (s) return s;
    *w = (int)p.w;
    *h = (int)p.h;
    return G4_OK;
}

g4_status g4_pcx_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err)
{
    g4_pcx p;
    memset(out, 0, sizeof *out);
    g4_status s = g4_pcx_open(m, &p, data, size, err);
    if (!s) s = g4_pixels_alloc(m, "PCX", p.w, p.h, out, err);
    if (s) return s;
    p.line = g4_alloc(m->a, p.planes, p.stride);
    s = p.line ? g4_pcx_rows(m, &p, out->rgb, err)
               : g4_fail(err, G4_ERR_MEMORY, "PCX: %zu bytes: out of memory", p.stride);
    g4_free(m->a, p.line);
    if (s) g4_pixels_free(m, out);
    return s;
}
