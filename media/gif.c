/* gif.c - GIF (87a and 89a): the first frame of a file on its canvas, over white, with Pillow's pixels. Of the canvas
 * that it leaves free, nothing is known but that it has no colour where one is transparent, and else the first one. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#define G4_GIF_HEAD 13u /* bytes: signature, width, height, flags, background, shape of pixels */
#define G4_GIF_FRAME 9u /* bytes behind a comma: left, top, width, height, flags */
#define G4_GIF_CONTROL 0xf9
enum { G4_GIF_HAS_PALETTE = 128, G4_GIF_INTERLACED = 64 }; /* flags, with the bits of a palette's numbers less 1 */

typedef struct {
    const uint8_t *data;
    size_t size, at;                            /* at: of the next byte */
    uint32_t w, h, left, top, frame_w, frame_h; /* of the canvas, and of the frame on it */
    int value_bits, is_interlaced, key;         /* key: the value that is transparent; -1: there is none */
    uint8_t palette[256][3];
    g4_pace pace;
} g4_gif;

static const uint8_t *g4_gif_take(g4_gif *g, size_t n) /* NULL: so many are not left */
{
    if (n > g->size - g->at) return NULL;
    g->at += n;
    return g->data + g->at - n;
}

/* A palette, if the flags say so. One that numbers its greys is like none, which has all of them. 0: cut short. */
static int g4_gif_palette(g4_gif *g, uint8_t flags)
{
    const size_t n = (size_t)2 << (flags & 7);
    int is_ramp = 1;
    if (!(flags & G4_GIF_HAS_PALETTE)) return 1;
    const uint8_t *colours = g4_gif_take(g, 3 * n);
    if (!colours) return 0;
    for (size_t i = 0; i < 3 * n && is_ramp; i++) is_ramp = colours[i] == i / 3;
    for (size_t i = 0; i < 256 && is_ramp; i++) memset(g->palette[i], (int)i, 3);
    if (is_ramp) return 1;
    memset(g->palette, 0, sizeof g->palette);
    memcpy(g->palette, colours, 3 * n);
    return 1;
}

/* A piece of data: its length, then so many bytes. 0: it is the last one, which is empty, or the file ends. */
static int g4_gif_piece(void *ctx, const uint8_t **p, const uint8_t **end)
{
    g4_gif *g = ctx;
    const uint8_t *n = g4_gif_take(g, 1);
    *p = n && *n ? g4_gif_take(g, g4_min_size(*n, g->size - g->at)) : NULL;
    *end = *p ? g->data + g->at : NULL;
    return *p && !g4_pace_ends(&g->pace, 256);
}

static void g4_gif_pass_pieces(g4_gif *g)
{
    const uint8_t *p, *end;
    while (g4_gif_piece(g, &p, &end)) {
    }
}

/* Pass over extensions, and what makes no sense, up to the next frame. Returns its description; NULL: there is none. */
static const uint8_t *g4_gif_next_frame(g4_gif *g)
{
    const uint8_t *p, *end, *name;
    while ((name = g4_gif_take(g, 1)) && *name != ';' && !g4_pace_ends(&g->pace, 16)) {
        if (*name == ',') return g4_gif_take(g, G4_GIF_FRAME);
        if (*name != '!' || !(name = g4_gif_take(g, 1)) || !g4_gif_piece(g, &p, &end)) continue;
        if (*name == G4_GIF_CONTROL && end - p >= 4 && (p[0] & 1)) g->key = p[3];
        g4_gif_pass_pieces(g);
    }
    return NULL;
}

static g4_status g4_gif_open(const g4_media_limits *m, g4_gif *g, const uint8_t *data, size_t size, g4_error *err)
{
    *g = (g4_gif) { .data = data, .size = size, .key = -1, .pace = { m->halt, 0 } };
    for (size_t i = 0; i < 256; i++) memset(g->palette[i], (int)i, 3);
    const uint8_t *head = g4_gif_take(g, G4_GIF_HEAD);
    const uint8_t *frame = head && g4_gif_palette(g, head[10]) ? g4_gif_next_frame(g) : NULL;
    const uint8_t *bits = frame && g4_gif_palette(g, frame[8]) ? g4_gif_take(g, 1) : NULL;
    if (!bits) {
        const g4_status s = g4_halt_check(m->halt, err);
        return s ? s : g4_fail(err, G4_ERR_FORMAT, "GIF: truncated, or no picture in %zu bytes", size);
    }
    g->left = g4_le16(frame);
    g->top = g4_le16(frame + 2);
    g->frame_w = g4_le16(frame + 4);
    g->frame_h = g4_le16(frame + 6);
    g->is_interlaced = frame[8] & G4_GIF_INTERLACED;
    g->value_bits = *bits;
    g->w = (uint32_t)g4_max_size(g4_le16(head + 6), g->left + g->frame_w); /* a canvas grows for its frame */
    g->h = (uint32_t)g4_max_size(g4_le16(head + 8), g->top + g->frame_h);
    if (g->frame_w == 0 || g->frame_h == 0 || g->value_bits > 11)
        return g4_fail(err, G4_ERR_FORMAT, "GIF: a frame of %u x %u with values of %d bits", (unsigned)g->frame_w,
                       (unsigned)g->frame_h, g->value_bits);
    const g4_status s = g4_pixels_check(m, "GIF", g->w, g->h, err);
    return s ? s : g4_pixels_check_bytes(m, "GIF", g->w, g->h, size, err);
}

/* A canvas with the frame's values on it. */
static g4_status g4_gif_put(g4_gif *g, const uint8_t *values, g4_pixels *out, g4_error *err)
{
    static const uint8_t first[4] = { 0, 4, 2, 1 }, step[4] = { 8, 8, 4, 2 }; /* rows of an interlaced one */
    const size_t w = g->w, n = g->frame_w;
    int pass = 0;
    uint32_t y = 0;
    if (g->key >= 0) memset(g->palette[g->key], 255, 3);
    for (size_t i = 0; i < w * g->h && (n < w || g->frame_h < g->h); i++) {
        memcpy(out->rgb + 3 * i, g->palette[g->key > 0 ? g->key : 0], 3);
        if (g4_pace_ends(&g->pace, 1)) return g4_halt_check(g->pace.halt, err);
    }
    for (uint32_t i = 0; i < g->frame_h; i++, values += n) {
        uint8_t *rgb = out->rgb + 3 * ((g->top + y) * w + g->left);
        for (size_t x = 0; x < n; x++) memcpy(rgb + 3 * x, g->palette[values[x]], 3);
        y += g->is_interlaced ? step[pass] : 1;
        while (g->is_interlaced && y >= g->frame_h && pass < 3) y = first[++pass];
        if (g4_pace_ends(&g->pace, n)) return g4_halt_check(g->pace.halt, err);
    }
    return G4_OK;
}

g4_status g4_gif_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err)
{
    g4_gif g;
    const g4_status s = g4_gif_open(m, &g, data, size, err);
    if (s) return s;
    *w = (int)g.w;
    *h = (int)g.h;
    return G4_OK;
}

int g4_gif_is_animated(const g4_media_limits *m, const uint8_t *data, size_t size)
{
    g4_gif g;
    if (g4_gif_open(m, &g, data, size, NULL)) return 0;
    g4_gif_pass_pieces(&g);
    return g4_gif_next_frame(&g) != NULL;
}

g4_status g4_gif_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err)
{
    g4_gif g;
    memset(out, 0, sizeof *out);
    g4_status s = g4_gif_open(m, &g, data, size, err);
    if (!s) s = g4_pixels_alloc(m, "GIF", g.w, g.h, out, err);
    if (s) return s;
    const size_t n = (size_t)g.frame_w * g.frame_h;
    uint8_t *values = g4_alloc(m->a, n, 1);
    const char *wrong = values ? g4_lzw(g4_gif_piece, &g, g.value_bits, 1, values, n, &g.pace) : NULL;
    if (!values) s = g4_fail(err, G4_ERR_MEMORY, "GIF: %zu pixels: out of memory", n);
    if (wrong) s = g4_halt_check(m->halt, err);
    if (wrong && !s) s = g4_fail(err, G4_ERR_FORMAT, "GIF: pixels before byte %zu: %s", g.at, wrong);
    if (!s) s = g4_gif_put(&g, values, out, err);
    g4_free(m->a, values);
    if (s) g4_pixels_free(m, out);
    return s;
}
