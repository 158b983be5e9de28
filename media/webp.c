/* webp.c - WebP: its container (RFC 9649), and its colours. The picture, or the first frame of an animation, which
 * ffmpeg cannot read, is wrapped as a still one, and ffmpeg unpacks it: lossless ones to RGBA, others to YCbCr, which
 * becomes RGB here as libwebp does it (its "fancy" upsampling, 14-bit coefficients), bit for bit. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <unistd.h>

#define G4_WEBP_HEAD 12 /* bytes before the first chunk */

typedef struct {
    int canvas_w, canvas_h, is_animated;
    int x, y, w, h;                  /* of the picture, or of the first frame on the canvas */
    const uint8_t *alpha, *image;    /* chunks with their headers; NULL: not there */
    size_t alpha_bytes, image_bytes; /* of them whole */
    int is_lossless, has_alpha;      /* has_alpha: of a lossless one */
    g4_turn turn;
    g4_pace pace;
} g4_webp;

/* ---- Container ------------------------------------------------------------------------------- */

static int g4_webp_le24(const uint8_t *p) { return (int)(g4_le16(p) | (uint32_t)p[2] << 16); }

/* The picture in a chunk with its header, of n bytes: its size stands at its start. 0: that makes no sense. */
static int g4_webp_image(g4_webp *p, const uint8_t *chunk, size_t n)
{
    const uint8_t *d = chunk + 8;
    p->is_lossless = chunk[3] == 'L';
    if (n < (p->is_lossless ? 8 + 5 : 8 + 10)) return 0;
    if (p->is_lossless) {
        const uint32_t bits = g4_le32(d + 1);
        if (d[0] != 0x2f) return 0;
        if (bits >> 29) return 0; /* a version that is not known */
        p->has_alpha = bits >> 28 & 1;
        p->w = (int)(bits & 0x3fff) + 1;
        p->h = (int)(bits >> 14 & 0x3fff) + 1;
    } else {
        if ((d[0] & 1) || memcmp(d + 3, "\x9d\x01\x2a", 3) != 0) return 0; /* a key frame, and its start code */
        p->w = (int)g4_le16(d + 6) & 0x3fff;
        p->h = (int)g4_le16(d + 8) & 0x3fff;
    }
    p->image = chunk;
    p->image_bytes = n;
    return p->w > 0 && p->h > 0;
}

/* A chunk with its header, of n bytes, of which 8 or more are there. 0: it makes no sense. */
static int g4_webp_chunk(g4_webp *p, const uint8_t *chunk, size_t n)
{
    const uint8_t *d = chunk + 8;
    if (!memcmp(chunk, "VP8X", 4) && n >= 8 + 10) {
        p->canvas_w = g4_webp_le24(d + 4) + 1;
        p->canvas_h = g4_webp_le24(d + 7) + 1;
    } else if (!memcmp(chunk, "ALPH", 4) && !p->image) {
        p->alpha = chunk;
        p->alpha_bytes = n;
    } else if ((!memcmp(chunk, "VP8 ", 4) || !memcmp(chunk, "VP8L", 4)) && !p->image) {
        return g4_webp_image(p, chunk, n);
    } else if (!memcmp(chunk, "EXIF", 4)) {
        g4_turn_by_exif(&p->turn, d, n - 8);
    } else if (!memcmp(chunk, "XMP ", 4)) {
        g4_turn_by_xmp(&p->turn, d, g4_min_size(n - 8, G4_XMP_MAX));
    }
    return 1;
}

/* All chunks in n bytes. 0: they make no sense, or the call is halted. */
static int g4_webp_chunks(g4_webp *p, const uint8_t *data, size_t n)
{
    for (size_t at = 0; n - at >= 8;) {
        const size_t left = n - at, size = g4_le32(data + at + 4);
        if (size > left - 8) return p->image != NULL; /* the rest does not matter then */
        if (!memcmp(data + at, "ANMF", 4)) {          /* a frame: x and y in twos, size, time, flags, then chunks */
            if (size < 16) return 0;
            if (!p->image) {
                p->is_animated = 1;
                p->x = 2 * g4_webp_le24(data + at + 8);
                p->y = 2 * g4_webp_le24(data + at + 11);
                for (size_t in = at + 8 + 16, end = at + 8 + size; end - in >= 8;) {
                    const size_t inner = g4_le32(data + in + 4);
                    if (inner > end - in - 8 || !g4_webp_chunk(p, data + in, 8 + inner)) return 0;
                    in = g4_min_size(end, in + 8 + inner + (inner & 1));
                }
            }
        } else if (!g4_webp_chunk(p, data + at, 8 + size)) {
            return 0;
        }
        at = g4_min_size(n, at + 8 + size + (size & 1));
        if (g4_pace_ends(&p->pace, 8)) return 0;
    }
    return p->image != NULL;
}

static g4_status g4_webp_open(const g4_media_limits *m, g4_webp *p, const uint8_t *data, size_t size, g4_error *err)
{
    *p = (g4_webp) { .pace = { m->halt, 0 } };
    if (!g4_webp_chunks(p, data + G4_WEBP_HEAD, size - G4_WEBP_HEAD)) {
        const g4_status s = g4_halt_check(m->halt, err);
        return s ? s : g4_fail(err, G4_ERR_FORMAT, "WebP: truncated, or no picture in %zu bytes", size);
    }
    if (!p->is_animated) {
        p->canvas_w = p->w;
        p->canvas_h = p->h;
    }
    if (p->w > p->canvas_w - p->x || p->h > p->canvas_h - p->y)
        return g4_fail(err, G4_ERR_FORMAT, "WebP: a frame of %d x %d at %d, %d of %d x %d", p->w, p->h, p->x, p->y,
                       p->canvas_w, p->canvas_h);
    const uint64_t w = (uint64_t)p->canvas_w, h = (uint64_t)p->canvas_h;
    const g4_status s = g4_pixels_check(m, "WebP", w, h, err);
    return s ? s : g4_pixels_check_bytes(m, "WebP", w, h, size, err);
}

/* The picture alone as a file. */
static void g4_webp_wrap(const g4_webp *p, g4_buf *out)
{
    const size_t body =
        4 + (p->alpha ? 8 + 10 + p->alpha_bytes + (p->alpha_bytes & 1) : 0) + p->image_bytes + (p->image_bytes & 1);
    uint8_t head[G4_WEBP_HEAD + 8 + 10] = "RIFF....WEBPVP8X\x0a\0\0\0\x10"; /* 10 bytes; with alpha */
    g4_store_le(head + 4, 4, body);
    g4_store_le(head + 24, 3, (uint64_t)p->w - 1);
    g4_store_le(head + 27, 3, (uint64_t)p->h - 1);
    g4_buf_add(out, head, p->alpha ? sizeof head : G4_WEBP_HEAD);
    if (p->alpha) {
        g4_buf_add(out, p->alpha, p->alpha_bytes);
        g4_buf_add(out, "", p->alpha_bytes & 1);
    }
    g4_buf_add(out, p->image, p->image_bytes);
    g4_buf_add(out, "", p->image_bytes & 1);
}

/* ---- Colours --------------------------------------------------------------------------------- */

/* A row of n chroma samples to `width` columns, from its own row and the one next to it. Weights 9, 3, 3, 1 of 16, in
 * two steps that round as libwebp's do. */
static void g4_webp_upsample(const uint8_t *restrict near, const uint8_t *restrict far, int width,
                             uint8_t *restrict out)
{
    const int pairs = (width - 1) / 2;
    out[0] = (uint8_t)((3 * near[0] + far[0] + 2) >> 2);
    for (int x = 1; x <= pairs; x++) {
        const int sum = near[x - 1] + near[x] + far[x - 1] + far[x] + 8;
        out[2 * x - 1] = (uint8_t)((((sum + 2 * (near[x] + far[x - 1])) >> 3) + near[x - 1]) >> 1);
        out[2 * x] = (uint8_t)((((sum + 2 * (near[x - 1] + far[x])) >> 3) + near[x]) >> 1);
    }
    if (width % 2 == 0) out[width - 1] = (uint8_t)((3 * near[pairs] + far[pairs] + 2) >> 2);
}

static inline uint8_t g4_webp_level(int v) { return g4_clamp_u8(v >> 6); } /* 6 fraction bits */

static void g4_webp_rgb_row(const uint8_t *y, const uint8_t *u, const uint8_t *v, int n, uint8_t *restrict rgb)
{
    for (int x = 0; x < n; x++, rgb += 3) {
        const int luma = (y[x] * 19077) >> 8;
        rgb[0] = g4_webp_level(luma + ((v[x] * 26149) >> 8) - 14234);
        rgb[1] = g4_webp_level(luma - ((u[x] * 6419) >> 8) - ((v[x] * 13320) >> 8) + 8708);
        rgb[2] = g4_webp_level(luma + ((u[x] * 33050) >> 8) - 17685);
    }
}

/* The frame's planes (Y, U, V and alpha, U and V halved each way) into the canvas. rows: room for (2, w). */
static int g4_webp_put_planes(g4_webp *p, const uint8_t *planes, uint8_t *rows, g4_pixels *out)
{
    const size_t w = (size_t)p->w, half_w = (w + 1) / 2;
    const int half_h = (p->h + 1) / 2;
    const uint8_t *const u = planes + w * (size_t)p->h, *const v = u + half_w * (size_t)half_h;
    const uint8_t *const alpha = v + half_w * (size_t)half_h;
    for (int y = 0; y < p->h; y++) {
        const size_t near = (size_t)y / 2, far = g4_chroma_beside((size_t)y, (size_t)p->h);
        uint8_t *rgb = out->rgb + 3 * ((size_t)(p->y + y) * (size_t)out->w + (size_t)p->x);
        g4_webp_upsample(u + near * half_w, u + far * half_w, p->w, rows);
        g4_webp_upsample(v + near * half_w, v + far * half_w, p->w, rows + w);
        g4_webp_rgb_row(planes + (size_t)y * w, rows, rows + w, p->w, rgb);
        for (size_t x = 0; p->alpha && x < 3 * w; x++) rgb[x] = g4_over_white(rgb[x], alpha[(size_t)y * w + x / 3]);
        if (g4_pace_ends(&p->pace, 8 * w)) return 1;
    }
    return 0;
}

/* The same from pixels that g4_vp8l_decode made, which may stand where the canvas does. */
static int g4_webp_put_lossless(g4_webp *p, const uint32_t *argb, g4_pixels *out)
{
    for (int y = 0; y < p->h; y++) {
        uint8_t *rgb = out->rgb + 3 * ((size_t)(p->y + y) * (size_t)out->w + (size_t)p->x);
        for (int x = 0; x < p->w; x++, rgb += 3) {
            const uint32_t v = *argb++, alpha = p->has_alpha ? v >> 24 : 255;
            for (int c = 0; c < 3; c++) rgb[c] = g4_over_white(v >> (16 - 8 * c) & 255, alpha);
        }
        if (g4_pace_ends(&p->pace, 4 * (size_t)p->w)) return 1;
    }
    return 0;
}

/* ---- Pictures -------------------------------------------------------------------------------- */

/* What ffmpeg makes of the picture: n bytes. */
static g4_status g4_webp_unpack(const g4_media_limits *m, const g4_webp *p, uint8_t *raw, size_t n, g4_error *err)
{
    int fd = -1;
    g4_buf file = { m->a, NULL, 0, 0, 0 };
    g4_webp_wrap(p, &file);
    g4_status s = file.failed ? g4_fail(err, G4_ERR_MEMORY, "WebP: out of memory")
                              : g4_media_spill(m, (const uint8_t *)file.data, file.len, &fd, err);
    g4_buf_free(&file);
    if (s) return s;
    const char *format = p->alpha ? "format=yuva420p" : "format=yuv420p";
    s = g4_ffmpeg_raw(m, &(g4_input) { fd, { .demuxer = "webp_pipe" } }, format, 1, raw, n, err);
    close(fd);
    return s;
}

g4_status g4_webp_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err)
{
    g4_webp p;
    const g4_status s = g4_webp_open(m, &p, data, size, err);
    if (!s) g4_upright_size(p.canvas_w, p.canvas_h, g4_orientation(&p.turn), w, h);
    return s;
}

/* A canvas with the frame's pixels on it. */
static g4_status g4_webp_canvas(const g4_media_limits *m, const g4_webp *p, g4_pixels *out, g4_error *err)
{
    const g4_status s = g4_pixels_alloc(m, "WebP", (uint64_t)p->canvas_w, (uint64_t)p->canvas_h, out, err);
    if (!s && p->is_animated) memset(out->rgb, 255, (size_t)out->w * (size_t)out->h * 3); /* beyond the frame */
    return s;
}

static g4_status g4_webp_lossless(const g4_media_limits *m, g4_webp *p, g4_pixels *out, g4_error *err)
{
    uint32_t *argb = g4_alloc(m->a, (size_t)p->w * (size_t)p->h, sizeof *argb);
    if (!argb) return g4_fail(err, G4_ERR_MEMORY, "WebP: %d x %d pixels: out of memory", p->w, p->h);
    g4_status s =
        g4_vp8l_decode(m, p->image + 8 + 5, p->image_bytes - 8 - 5, (uint32_t)p->w, (uint32_t)p->h, argb, err);
    if (!s && p->is_animated) s = g4_webp_canvas(m, p, out, err);
    const int is_in_place = !s && !p->is_animated; /* with both, pixels would take more than they do themselves */
    if (is_in_place) *out = (g4_pixels) { (uint8_t *)argb, p->w, p->h };
    if (!s && g4_webp_put_lossless(p, argb, out)) s = g4_halt_check(m->halt, err);
    if (!is_in_place) g4_free(m->a, argb);
    return s;
}

static g4_status g4_webp_lossy(const g4_media_limits *m, g4_webp *p, g4_pixels *out, g4_error *err)
{
    const size_t n = (size_t)p->w * (size_t)p->h, half = (size_t)((p->w + 1) / 2) * (size_t)((p->h + 1) / 2);
    const size_t bytes = n + 2 * half + (p->alpha ? n : 0);
    uint8_t *raw = g4_alloc(m->a, bytes, 1), *rows = g4_alloc(m->a, (size_t)p->w, 2);
    g4_status s = raw && rows ? g4_webp_unpack(m, p, raw, bytes, err)
                              : g4_fail(err, G4_ERR_MEMORY, "WebP: %d x %d pixels: out of memory", p->w, p->h);
    if (!s) s = g4_webp_canvas(m, p, out, err);
    if (!s && g4_webp_put_planes(p, raw, rows, out)) s = g4_halt_check(m->halt, err);
    g4_free(m->a, raw);
    g4_free(m->a, rows);
    return s;
}

g4_status g4_webp_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err)
{
    g4_webp p;
    memset(out, 0, sizeof *out);
    g4_status s = g4_webp_open(m, &p, data, size, err);
    if (!s) s = p.is_lossless ? g4_webp_lossless(m, &p, out, err) : g4_webp_lossy(m, &p, out, err);
    if (!s) s = g4_pixels_orient(m, out, g4_orientation(&p.turn), err);
    if (s) g4_pixels_free(m, out);
    return s;
}
