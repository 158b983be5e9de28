/* xbm.c - X bitmaps, which are C programs: two sizes, then bytes of 8 pixels, the left one lowest. As Pillow has it, a
 * bit that is set is white. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

typedef struct {
    const uint8_t *data;
    size_t size, at;
    int w, h; /* 0: not said so far */
    g4_pace pace;
} g4_xbm;

/* Does the word before `end` end so? */
static int g4_xbm_word_ends(const g4_xbm *x, size_t end, const char *name)
{
    const size_t n = strlen(name);
    return end >= n && !memcmp(x->data + end - n, name, n);
}

/* A size: what stands behind "#define ", the name of which tells which. */
static void g4_xbm_define(g4_xbm *x)
{
    while (x->at < x->size && x->data[x->at] > ' ' && !g4_pace_ends(&x->pace, 1)) x->at++;
    const size_t end = x->at;
    g4_reader r = { .data = x->data, .size = x->size, .pos = end };
    const int64_t v = g4_scan_number(&r, 9, &x->pace);
    if (v < 0) return;
    if (g4_xbm_word_ends(x, end, "_width")) x->w = (int)v;
    if (g4_xbm_word_ends(x, end, "_height")) x->h = (int)v;
    x->at = r.pos;
}

/* All up to the brace that stands before the pixels. */
static g4_status g4_xbm_open(const g4_media_limits *m, g4_xbm *x, const uint8_t *data, size_t size, g4_error *err)
{
    static const char define[] = "#define ";
    const size_t n = sizeof define - 1;
    *x = (g4_xbm) { .data = data, .size = size, .pace = { m->halt, 0 } };
    while (x->at < size && data[x->at] != '{' && !g4_pace_ends(&x->pace, 1)) {
        const int is_define = size - x->at > n && !memcmp(data + x->at, define, n);
        x->at += is_define ? n : 1;
        if (is_define) g4_xbm_define(x);
    }
    const g4_status s = g4_halt_check(m->halt, err);
    if (s) return s;
    if (x->at == size) return g4_fail(err, G4_ERR_FORMAT, "XBM: no pixels in %zu bytes", size);
    return g4_pixels_check(m, "XBM", (uint64_t)x->w, (uint64_t)x->h, err);
}

static int g4_xbm_digit(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* The next byte, "0x" and one or two digits; -1: there is none. */
static int g4_xbm_byte(g4_xbm *x)
{
    while (x->at < x->size && (x->data[x->at] | 32) != 'x')
        if (x->data[x->at++] == '}' || g4_pace_ends(&x->pace, 1)) return -1;
    int v = -1;
    for (x->at++; x->at < x->size && g4_xbm_digit(x->data[x->at]) >= 0 && v < 16; x->at++)
        v = 16 * (v < 0 ? 0 : v) + g4_xbm_digit(x->data[x->at]);
    return v;
}

g4_status g4_xbm_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err)
{
    g4_xbm x;
    const g4_status s = g4_xbm_open(m, &x, data, size, err);
    if (s) return s;
    *w = x.w;
    *h = x.h;
    return G4_OK;
}

g4_status g4_xbm_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err)
{
    g4_xbm x;
    memset(out, 0, sizeof *out);
    g4_status s = g4_xbm_open(m, &x, data, size, err);
    if (!s && (uint64_t)x.w * (uint64_t)x.h / 8 > size)
        s = g4_fail(err, G4_ERR_FORMAT, "XBM: truncated: %d x %d pixels in %zu bytes", x.w, x.h, size);
    if (!s) s = g4_pixels_alloc(m, "XBM", (uint64_t)x.w, (uint64_t)x.h, out, err);
    if (s) return s;
    for (int y = 0; y < x.h && !s; y++) {
        uint8_t *dst = out->rgb + 3 * (size_t)y * (size_t)x.w;
        for (int left = x.w; left > 0 && !s; left -= 8) {
            const int v = g4_xbm_byte(&x), n = left < 8 ? left : 8;
            if (v < 0) s = g4_fail(err, G4_ERR_FORMAT, "XBM: truncated: row %d of %d", y, x.h);
            for (int bit = 0; bit < n; bit++, dst += 3) memset(dst, v >> bit & 1 ? 255 : 0, 3);
        }
        if (!s) s = g4_halt_check(m->halt, err);
    }
    if (s) g4_pixels_free(m, out);
    return s;
}
