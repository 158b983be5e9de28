/* y4m.c - reading y4m. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>
#include <sys/types.h>

/* ---- y4m ------------------------------------------------------------------------------------------------
 *
 * In: YUV4MPEG2 of 8 bits, 4:2:0, 4:2:2, 4:4:4, 4:1:1 or mono, from memory or a seekable file. Out: the sampled frames
 * as RGB. Chroma samples are repeated, not interpolated. BT.601, limited range (Y 16..235, U and V 16..240), each level
 * rounded to nearest: R = 255/219 (Y - 16) + 1.402 * 255/224 (V - 128) G = 255/219 (Y - 16) - (0.344136 (U - 128) +
 * 0.714136 (V - 128)) * 255/224 B = 255/219 (Y - 16) + 1.772 * 255/224 (U - 128) with 16 fraction bits;
 * XCOLORRANGE=FULL: Y as it is, 255/219 and 255/224 left out. Without a frame rate, 24 is assumed, as the reference
 * does. */

static int g4_source_read(g4_source *s, void *out, size_t n) /* nonzero: fewer are left */
{
    if (n > s->size - s->at) return 1;
    if (s->data)
        memcpy(out, s->data + s->at, n);
    else if (fread(out, 1, n, s->f) != n)
        return 1;
    s->at += n;
    return 0;
}
static int g4_source_seek(g4_source *s, uint64_t at)
{
    if (at > s->size || (!s->data && fseeko(s->f, (off_t)at, SEEK_SET) != 0)) return 1;
    s->at = at;
    return 0;
}
/* Text up to a newline, which is dropped. Nonzero: none in cap - 1 bytes. */
static int g4_source_line(g4_source *s, char *out, size_t cap)
{
    for (size_t n = 0; n + 1 < cap; n++) {
        if (g4_source_read(s, out + n, 1)) return 1;
        if (out[n] == '\n') {
            out[n] = 0;
            return 0;
        }
    }
    return 1;
}

typedef struct {
    uint64_t w, h, cw, ch, frame_bytes; /* cw, ch: columns and rows of a chroma plane, 0 for mono */
    double fps;
    int full_range;
} g4_y4m;

/* The first line. *foreign: a kind of y4m that ffmpeg may read. */
static g4_status g4_y4m_header(g4_y4m *y, char *line, const g4_media *m, int *foreign, g4_error *err)
{
    const char *chroma = "420jpeg";
    y->fps = 24;
    for (char *p = line; *p;) {
        char *end = p + strcspn(p, " "), *next = *end ? end + 1 : end;
        *end = 0;
        g4_pnm num = { (const uint8_t *)p + 1, (size_t)(end - p) - (end > p), 0 };
        if (*p == 'W') y->w = (uint64_t)g4_pnm_number(&num, 9);
        if (*p == 'H') y->h = (uint64_t)g4_pnm_number(&num, 9);
        if (*p == 'F') {
            int64_t a = g4_pnm_number(&num, 9);
            num.at++; /* the colon */
            int64_t b = num.at < num.size ? g4_pnm_number(&num, 9) : -1;
            if (a > 0 && b > 0) y->fps = (double)a / (double)b;
        }
        if (*p == 'C') chroma = p + 1;
        if (!strcmp(p, "XCOLORRANGE=FULL")) y->full_range = 1;
        p = next;
    }
    if (y->w < 1 || y->h < 1 || y->w > INT32_MAX || y->h > INT32_MAX)
        return g4_fail(err, G4_ERR_FORMAT, "y4m: the header gives no size");
    if (y->w * y->h > m->max_pixels)
        return g4_fail(err, G4_ERR_UNSUPPORTED,
                       "y4m: %" PRIu64 " x %" PRIu64 " pixels are more than the limit of %" PRIu64, y->w, y->h,
                       m->max_pixels);
    if (!strcmp(chroma, "420jpeg") || !strcmp(chroma, "420mpeg2") || !strcmp(chroma, "420paldv") ||
        !strcmp(chroma, "420")) {
        y->cw = (y->w + 1) / 2;
        y->ch = (y->h + 1) / 2;
    } else if (!strcmp(chroma, "422")) {
        y->cw = (y->w + 1) / 2;
        y->ch = y->h;
    } else if (!strcmp(chroma, "444")) {
        y->cw = y->w;
        y->ch = y->h;
    } else if (!strcmp(chroma, "411")) {
        y->cw = (y->w + 3) / 4;
        y->ch = y->h;
    } else if (strcmp(chroma, "mono") != 0) {
        *foreign = 1;
        return g4_fail(err, G4_ERR_UNSUPPORTED, "y4m: colour format %.20s, expected 420, 422, 444, 411 or mono",
                       chroma);
    }
    y->frame_bytes = y->w * y->h + 2 * y->cw * y->ch;
    return G4_OK;
}

static void g4_y4m_rgb(const g4_y4m *y, const uint8_t *yuv, uint8_t *dst)
{
    const uint8_t *up = yuv + y->w * y->h, *vp = up + y->cw * y->ch;
    uint64_t sx = y->cw == 0 ? 1 : (y->w + y->cw - 1) / y->cw, sy = y->ch == 0 ? 1 : (y->h + y->ch - 1) / y->ch;
    int32_t black = y->full_range ? 0 : 16, ky = y->full_range ? 65536 : 76309, rv = y->full_range ? 91881 : 104597;
    int32_t gu = y->full_range ? 22553 : 25675, gv = y->full_range ? 46802 : 53279,
            bu = y->full_range ? 116130 : 132201;
    for (uint64_t r = 0; r < y->h; r++) {
        for (uint64_t c = 0; c < y->w; c++, dst += 3) {
            size_t k = (size_t)(r / sy * y->cw + c / sx);
            int32_t l = (*yuv++ - black) * ky + 32768, u = y->cw ? up[k] - 128 : 0, v = y->cw ? vp[k] - 128 : 0;
            dst[0] = g4_clamp_u8((l + rv * v) >> 16);
            dst[1] = g4_clamp_u8((l - gu * u - gv * v) >> 16);
            dst[2] = g4_clamp_u8((l + bu * u) >> 16);
        }
    }
}

g4_status g4_y4m_frames(const g4_media *m, g4_source *src, g4_video *out, int *foreign, g4_error *err)
{
    char line[512];
    g4_y4m y = { 0, 0, 0, 0, 0, 0, 0 };
    if (g4_source_line(src, line, sizeof line)) return g4_fail(err, G4_ERR_FORMAT, "y4m: truncated in the first line");
    g4_status s = g4_y4m_header(&y, line + 9, m, foreign, err);
    if (s) return s;
    uint64_t start = src->at;
    int64_t total = 0;
    for (; src->at < src->size; total++) { /* first round: count and check */
        if (g4_source_line(src, line, sizeof line) || strncmp(line, "FRAME", 5) != 0)
            return g4_fail(err, G4_ERR_FORMAT, "y4m: byte %" PRIu64 ": expected FRAME and a newline for frame %lld",
                           src->at, (long long)total);
        if (g4_source_seek(src, src->at + y.frame_bytes))
            return g4_fail(err, G4_ERR_FORMAT, "y4m: truncated: frame %lld needs %" PRIu64 " bytes, found %" PRIu64,
                           (long long)total, y.frame_bytes, src->size - src->at);
    }
    if (total == 0) return g4_fail(err, G4_ERR_FORMAT, "y4m: no frames");
    int n = 0;
    s = g4_frame_count(m, total, y.fps, &n, err);
    if (!s) s = g4_video_alloc(m, n, out, err);
    uint8_t *yuv = s ? NULL : g4_alloc(m->a, (size_t)y.frame_bytes, 1);
    if (!s && !yuv) s = g4_fail(err, G4_ERR_MEMORY, "y4m: %" PRIu64 " bytes of a frame: out of memory", y.frame_bytes);
    if (!s && g4_source_seek(src, start)) s = g4_fail(err, G4_ERR_IO, "y4m: cannot go back to byte %" PRIu64, start);
    for (int64_t i = 0; !s && yuv && i < total && out->n_frames < n; i++) { /* second round: keep what is sampled */
        if (g4_source_line(src, line, sizeof line)) {
            s = g4_fail(err, G4_ERR_IO, "y4m: the file changed while it was read");
        } else if (i != g4_frame_index(out->n_frames, total, n)) {
            if (g4_source_seek(src, src->at + y.frame_bytes))
                s = g4_fail(err, G4_ERR_IO, "y4m: the file changed while it was read");
        } else {
            uint8_t *pixels = NULL;
            if (g4_source_read(src, yuv, (size_t)y.frame_bytes))
                s = g4_fail(err, G4_ERR_IO, "y4m: the file changed while it was read");
            if (!s) s = g4_pixels_alloc(m, "y4m", y.w, y.h, &pixels, err);
            if (s) break;
            g4_y4m_rgb(&y, yuv, pixels);
            ((g4_image *)(uintptr_t)out->frames)[out->n_frames] = (g4_image) { pixels, (int)y.w, (int)y.h, 0, 0 };
            ((double *)(uintptr_t)out->seconds)[out->n_frames++] = (double)i / y.fps;
        }
    }
    g4_free(m->a, yuv);
    return s;
}
