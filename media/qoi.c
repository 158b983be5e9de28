/* qoi.c - QOI ("quite OK image"), version 1.0: each pixel is a change of the one before, one of 64 that were seen, or
 * given whole. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#define G4_QOI_HEAD 14u /* bytes: "qoif", width, height, channels, colour space */
enum { G4_QOI_RGB = 0xfe, G4_QOI_RGBA };
enum { G4_QOI_INDEX, G4_QOI_DIFFERENCE, G4_QOI_LUMA, G4_QOI_RUN }; /* the two highest bits of other bytes */

typedef struct {
    const uint8_t *p, *end;
    uint8_t pixel[4], seen[64][4];
    uint32_t run; /* pixels like the last one that are to come */
} g4_qoi;

static g4_status g4_qoi_open(const g4_media_limits *m, const uint8_t *data, size_t size, uint32_t *w, uint32_t *h,
                             g4_error *err)
{
    if (size < G4_QOI_HEAD) return g4_fail(err, G4_ERR_FORMAT, "QOI: truncated head of %zu bytes", size);
    *w = g4_be32(data + 4);
    *h = g4_be32(data + 8);
    const g4_status s = g4_pixels_check(m, "QOI", *w, *h, err);
    return s ? s : g4_pixels_check_bytes(m, "QOI", *w, *h, size, err);
}

/* Add to the colours of the last pixel. */
static void g4_qoi_add(g4_qoi *q, int r, int g, int b)
{
    q->pixel[0] = (uint8_t)(q->pixel[0] + r);
    q->pixel[1] = (uint8_t)(q->pixel[1] + g);
    q->pixel[2] = (uint8_t)(q->pixel[2] + b);
}

/* Remember the pixel, unless it is one of a run. */
static void g4_qoi_see(g4_qoi *q)
{
    const uint8_t *v = q->pixel;
    memcpy(q->seen[(v[0] * 3 + v[1] * 5 + v[2] * 7 + v[3] * 11) % 64], v, 4);
}

/* The next pixel becomes the last one. Nonzero: the data have ended. */
static int g4_qoi_next(g4_qoi *q)
{
    if (q->run > 0) {
        q->run--;
        return 0;
    }
    if (q->p == q->end) return 1;
    const int v = *q->p++;
    const ptrdiff_t more = v == G4_QOI_RGBA ? 4 : v == G4_QOI_RGB ? 3 : v >> 6 == G4_QOI_LUMA ? 1 : 0;
    if (q->end - q->p < more) return 1;
    if (v == G4_QOI_RGB || v == G4_QOI_RGBA) {
        memcpy(q->pixel, q->p, (size_t)more);
    } else if (v >> 6 == G4_QOI_INDEX) {
        memcpy(q->pixel, q->seen[v], 4);
    } else if (v >> 6 == G4_QOI_DIFFERENCE) {
        g4_qoi_add(q, (v >> 4 & 3) - 2, (v >> 2 & 3) - 2, (v & 3) - 2);
    } else if (v >> 6 == G4_QOI_LUMA) {
        const int green = (v & 63) - 32;
        g4_qoi_add(q, green - 8 + (*q->p >> 4), green, green - 8 + (*q->p & 15));
    } else {
        q->run = v & 63;
        return 0;
    }
    q->p += more;
    g4_qoi_see(q);
    return 0;
}

g4_status g4_qoi_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err)
{
    uint32_t width = 0, height = 0;
    const g4_status s = g4_qoi_open(m, data, size, &width, &height, err);
    if (s) return s;
    *w = (int)width;
    *h = (int)height;
    return G4_OK;
}

g4_status g4_qoi_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err)
{
    uint32_t w = 0, h = 0;
    memset(out, 0, sizeof *out);
    g4_status s = g4_qoi_open(m, data, size, &w, &h, err);
    if (!s) s = g4_pixels_alloc(m, "QOI", w, h, out, err);
    if (s) return s;
    g4_qoi q = { .p = data + G4_QOI_HEAD, .end = data + size, .pixel = { 0, 0, 0, 255 } };
    g4_pace pace = { m->halt, 0 };
    const int has_alpha = data[12] != 3;
    for (size_t i = 0, n = (size_t)w * h; i < n && !s; i++) {
        if (g4_qoi_next(&q)) s = g4_fail(err, G4_ERR_FORMAT, "QOI: truncated: %zu of %zu pixels", i, n);
        for (int c = 0; c < 3; c++)
            out->rgb[3 * i + (size_t)c] = has_alpha ? g4_over_white(q.pixel[c], q.pixel[3]) : q.pixel[c];
        if (g4_pace_ends(&pace, 4) && !s) s = g4_halt_check(m->halt, err);
    }
    if (s) g4_pixels_free(m, out);
    return s;
}
