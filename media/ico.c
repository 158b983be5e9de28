/* ico.c - Windows icons and cursors: the largest picture of the file, which is a PNG file or a bitmap with a mask of
 * one bit. Of several icons of that size, Pillow takes the one of the fewest colours, of cursors the first; and it
 * looks at the mask of a cursor only where that is black and white. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#define G4_ICO_HEAD 6   /* bytes before the list: 0, 1 or 2 for cursors, how many */
#define G4_ICO_ENTRY 16 /* bytes: width, height, colours, 0, planes (2), bits (2), bytes (4), offset (4) */
/* Offsets in a bitmap, of which the list of cursors says less. */
enum { G4_ICO_WIDTH = 4, G4_ICO_HEIGHT = 8, G4_ICO_BITS = 14, G4_ICO_COLOURS = 32, G4_ICO_BITMAP = 40 };

typedef struct {
    const uint8_t *data; /* from the picture's start to the end of the file */
    size_t size, bytes;  /* there, and as the list says */
    uint32_t bits;       /* as the list of icons says */
    int has_mask;
} g4_ico;

static uint32_t g4_ico_pixels(const uint8_t *entry)
{
    return (entry[0] ? entry[0] : 256u) * (entry[1] ? entry[1] : 256u);
}

/* Bits of a pixel, as far as the list says them: it may say the number of colours. */
static uint32_t g4_ico_depth(const uint8_t *entry)
{
    uint32_t depth = g4_le16(entry + 6);
    for (; depth < 8 && entry[2] > 1u << depth && !g4_le16(entry + 6);) depth++;
    return depth ? depth : 256;
}

/* Is an entry better than the best one so far? */
static int g4_ico_is_better(const uint8_t *entry, const uint8_t *best, int is_cursor)
{
    if (!best) return 1;
    if (is_cursor) return entry[0] > best[0] && entry[1] > best[1];
    return g4_ico_pixels(entry) > g4_ico_pixels(best) ||
           (g4_ico_pixels(entry) == g4_ico_pixels(best) && g4_ico_depth(entry) < g4_ico_depth(best));
}

/* What the bitmap of a cursor says: its bits, and, of black and white, how long it is with its mask. */
static void g4_ico_look(g4_ico *ico)
{
    static const uint8_t black_white[8] = { 0, 0, 0, 0, 255, 255, 255, 0 };
    if (ico->size < G4_ICO_BITMAP) return;
    const uint8_t *p = ico->data;
    const uint64_t stride = ((uint64_t)g4_le32(p + G4_ICO_WIDTH) + 31) / 32 * 4, colours = g4_le32(p + G4_ICO_COLOURS);
    const uint64_t head = g4_le32(p), rows = g4_le32(p + G4_ICO_HEIGHT) & 0x7fffffff; /* of pixels, then of the mask */
    const uint64_t bytes = head + 4 * (colours ? colours : 2) + stride * rows;
    ico->bits = g4_le16(p + G4_ICO_BITS);
    ico->bytes = bytes > SIZE_MAX ? SIZE_MAX : (size_t)bytes;
    ico->has_mask = ico->bits == 1 && ico->size - 8 >= head && !memcmp(p + head, black_white, 8);
}

static g4_status g4_ico_open(g4_ico *ico, const uint8_t *data, size_t size, g4_error *err)
{
    const uint8_t *best = NULL;
    const uint32_t n = size < G4_ICO_HEAD ? 0 : g4_le16(data + 4);
    if (n == 0 || (size - G4_ICO_HEAD) / G4_ICO_ENTRY < n)
        return g4_fail(err, G4_ERR_FORMAT, "ICO: a list of %u pictures in %zu bytes", (unsigned)n, size);
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *entry = data + G4_ICO_HEAD + (size_t)G4_ICO_ENTRY * i;
        if (g4_ico_is_better(entry, best, data[2] == 2)) best = entry;
    }
    const size_t at = g4_le32(best + 12);
    if (at >= size) return g4_fail(err, G4_ERR_FORMAT, "ICO: truncated: a picture at %zu of %zu bytes", at, size);
    *ico = (g4_ico) { data + at, size - at, g4_le32(best + 8), g4_le16(best + 6), 1 };
    if (data[2] == 2) {
        ico->has_mask = 0;
        g4_ico_look(ico);
    }
    return G4_OK;
}

/* What the mask leaves out is white. Its rows stand at the end of the picture, the lowest first, and fill 4 bytes. */
static g4_status g4_ico_mask(const g4_media_limits *m, const g4_ico *ico, g4_pixels *p, g4_error *err)
{
    const size_t w = (size_t)p->w, h = (size_t)p->h, stride = (w + 31) / 32 * 4;
    if (ico->bytes > ico->size || stride * h > ico->bytes)
        return g4_fail(err, G4_ERR_FORMAT, "ICO: truncated: a mask of %zu bytes in %zu of %zu", stride * h, ico->bytes,
                       ico->size);
    g4_pace pace = { m->halt, 0 };
    for (size_t y = 0; y < h; y++) {
        const uint8_t *row = ico->data + ico->bytes - stride * (y + 1);
        for (size_t x = 0; x < w; x++)
            if (row[x / 8] >> (7 - x % 8) & 1) memset(p->rgb + 3 * (y * w + x), 255, 3);
        if (g4_pace_ends(&pace, w)) return g4_halt_check(m->halt, err);
    }
    return G4_OK;
}

g4_status g4_ico_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err)
{
    g4_ico ico = { NULL, 0, 0, 0, 0 };
    const g4_status s = g4_ico_open(&ico, data, size, err);
    if (s) return s;
    return g4_is_png(ico.data, ico.size) ? g4_png_size(m, ico.data, ico.size, w, h, err)
                                         : g4_bmp_part_size(m, ico.data, ico.size, w, h, err);
}

g4_status g4_ico_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err)
{
    g4_ico ico = { NULL, 0, 0, 0, 0 };
    memset(out, 0, sizeof *out);
    g4_status s = g4_ico_open(&ico, data, size, err);
    if (s) return s;
    if (g4_is_png(ico.data, ico.size)) return g4_png_decode(m, ico.data, ico.size, out, err);
    int has_alpha = ico.bits == 32;
    s = g4_bmp_part(m, ico.data, ico.size, &has_alpha, out, err);
    if (!s && !has_alpha && ico.has_mask) s = g4_ico_mask(m, &ico, out, err);
    if (s) g4_pixels_free(m, out);
    return s;
}
