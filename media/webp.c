/* webp.c - WebP: its container (RFC 9649), its alpha and its colours. The picture, or the first frame of an animation,
 * is unpacked to ARGB if it is lossless, and else to YCbCr, which becomes RGB as libwebp does it (its "fancy"
 * upsampling, 14-bit coefficients), bit for bit. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#define G4_WEBP_HEAD 12 /* bytes before the first chunk */

typedef struct {
    int canvas_w, canvas_h, is_animated;
    int x, y, w, h;                  /* of the picture, or of the first frame on the canvas */
    const uint8_t *alpha, *image;    /* chunks with their headers; NULL: not there */
    size_t alpha_bytes, image_bytes; /* of them whole */
    int is_lossless, has_alpha;      /* has_alpha: of a lossless one */
    int is_opaque;                   /* the file says that no alpha counts */
    g4_turn turn;
    g4_pace pace;
} g4_webp;

/* ---- Container ------------------------------------------------------------------------------- */

static int g4_webp_le24(const uint8_t *p) { return (int)(g4_le16(p) | (uint32_t)p[2] << 16); }

/* The picture in a chunk with its header, of n bytes: its size stands at its start. 0: that makes no sense. As in
 * libwebp, a byte that only pads it counts as one of its data. */
static int g4_webp_image(g4_webp *p, const uint8_t *chunk, size_t n, size_t padding)
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
    p->image_bytes = n + padding;
    return p->w > 0 && p->h > 0;
}

/* A chunk with its header, of n bytes, of which 8 or more are there, and padding. 0: it makes no sense. */
static int g4_webp_chunk(g4_webp *p, const uint8_t *chunk, size_t n, size_t padding)
{
    const uint8_t *d = chunk + 8;
    if (!memcmp(chunk, "VP8X", 4) && n >= 8 + 10) {
        p->is_opaque = !(d[0] & 0x10);
        p->canvas_w = g4_webp_le24(d + 4) + 1;
        p->canvas_h = g4_webp_le24(d + 7) + 1;
    } else if (!memcmp(chunk, "ALPH", 4) && !p->image) {
        p->alpha = chunk;
        p->alpha_bytes = n;
    } else if ((!memcmp(chunk, "VP8 ", 4) || !memcmp(chunk, "VP8L", 4)) && !p->image) {
        return g4_webp_image(p, chunk, n, padding);
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
        const size_t padding = g4_min_size(size & 1, left - 8 - size);
        if (!memcmp(data + at, "ANMF", 4)) { /* a frame: x and y in twos, size, time, flags, then chunks */
            if (size < 16) return 0;
            if (!p->image) {
                p->is_animated = 1;
                p->x = 2 * g4_webp_le24(data + at + 8);
                p->y = 2 * g4_webp_le24(data + at + 11);
                for (size_t in = at + 8 + 16, end = at + 8 + size; end - in >= 8;) {
                    const size_t inner = g4_le32(data + in + 4);
                    if (inner > end - in - 8) return 0;
                    const size_t pad = g4_min_size(inner & 1, end - in - 8 - inner);
                    if (!g4_webp_chunk(p, data + in, 8 + inner, pad)) return 0;
                    in += 8 + inner + pad;
                }
            }
        } else if (!g4_webp_chunk(p, data + at, 8 + size, padding)) {
            return 0;
        }
        at += 8 + size + padding;
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

/* ---- Alpha of lossy pictures ------------------------------------------------------------------- */

enum { G4_WEBP_PLAIN, G4_WEBP_LEFT, G4_WEBP_ABOVE, G4_WEBP_SLOPE }; /* what samples are differences to */

/* A row of n samples that are differences. above: the row before; NULL: there is none, and the left one counts. */
static void g4_webp_undo_row(int filter, const uint8_t *above, uint8_t *row, size_t n)
{
    if (filter == G4_WEBP_PLAIN) return;
    if (!above) filter = G4_WEBP_LEFT;
    row[0] = (uint8_t)(row[0] + (above ? above[0] : 0));
    for (size_t i = 1; i < n; i++) {
        const int left = row[i - 1];
        const int guess = filter == G4_WEBP_LEFT    ? left
                          : filter == G4_WEBP_ABOVE ? above[i]
                                                    : g4_clamp_u8(left + above[i] - above[i - 1]);
        row[i] = (uint8_t)(row[i] + guess);
    }
}

/* What an ALPH chunk packs as a lossless picture: its green samples, one by one. Takes 4 bytes a pixel for a while. */
static g4_status g4_webp_packed_alpha(const g4_media_limits *m, const g4_webp *p, const uint8_t *data, size_t size,
                                      uint8_t **out, g4_error *err)
{
    const size_t n = (size_t)p->w * (size_t)p->h;
    uint32_t *argb = g4_alloc(m->a, n, sizeof *argb);
    if (!argb) return g4_fail(err, G4_ERR_MEMORY, "WebP: %d x %d pixels: out of memory", p->w, p->h);
    g4_status s = g4_vp8l_decode(m, data, size, (uint32_t)p->w, (uint32_t)p->h, argb, err);
    *out = s ? NULL : g4_alloc(m->a, n, 1);
    if (!s && !*out) s = g4_fail(err, G4_ERR_MEMORY, "WebP: %d x %d pixels: out of memory", p->w, p->h);
    for (size_t i = 0; !s && i < n; i++) (*out)[i] = (uint8_t)(argb[i] >> 8);
    g4_free(m->a, argb);
    return s;
}

/* The alpha of a lossy picture (RFC 9649, 2.7.1.2): (h, w). Its first byte says how it is packed and filtered; that its
 * levels were made fewer before does not matter here. */
static g4_status g4_webp_alpha(const g4_media_limits *m, g4_webp *p, uint8_t **out, g4_error *err)
{
    enum { RAW, LOSSLESS };
    const size_t w = (size_t)p->w, n = w * (size_t)p->h, size = p->alpha_bytes - 8;
    const uint8_t *const data = p->alpha + 8;
    const int head = size > 0 ? data[0] : 0, method = head & 3, filter = head >> 2 & 3;
    if (size < 1 || method > LOSSLESS || (head >> 4 & 3) > 1 || head >> 6 > 0)
        return g4_fail(err, G4_ERR_FORMAT, "WebP: alpha of %zu bytes, of a kind that is not known", size);
    if (method == RAW && size - 1 < n)
        return g4_fail(err, G4_ERR_FORMAT, "WebP: %zu of %zu bytes of alpha", size - 1, n);
    g4_status s = G4_OK;
    *out = NULL;
    if (method == LOSSLESS)
        s = g4_webp_packed_alpha(m, p, data + 1, size - 1, out, err);
    else if (!(*out = g4_alloc(m->a, n, 1)))
        s = g4_fail(err, G4_ERR_MEMORY, "WebP: %d x %d pixels: out of memory", p->w, p->h);
    for (int y = 0; !s && y < p->h; y++) {
        uint8_t *const row = *out + (size_t)y * w;
        if (method == RAW) memcpy(row, data + 1 + (size_t)y * w, w);
        g4_webp_undo_row(filter, y > 0 ? row - w : NULL, row, w);
        if (g4_pace_ends(&p->pace, 4 * w)) s = g4_halt_check(m->halt, err);
    }
    return s;
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

/* The frame's samples into the canvas. alpha: (h, w), or NULL; rows: room for (2, w). */
static int g4_webp_put_planes(g4_webp *p, const g4_vp8_planes *planes, const uint8_t *alpha, uint8_t *rows,
                              g4_pixels *out)
{
    const size_t w = (size_t)p->w, half = planes->stride / 2;
    for (int y = 0; y < p->h; y++) {
        const size_t near = (size_t)y / 2, far = g4_chroma_beside((size_t)y, (size_t)p->h);
        uint8_t *rgb = out->rgb + 3 * ((size_t)(p->y + y) * (size_t)out->w + (size_t)p->x);
        g4_webp_upsample(planes->u + near * half, planes->u + far * half, p->w, rows);
        g4_webp_upsample(planes->v + near * half, planes->v + far * half, p->w, rows + w);
        g4_webp_rgb_row(planes->y + (size_t)y * planes->stride, rows, rows + w, p->w, rgb);
        for (size_t x = 0; alpha && x < 3 * w; x++) rgb[x] = g4_over_white(rgb[x], alpha[(size_t)y * w + x / 3]);
        if (g4_pace_ends(&p->pace, 8 * w)) return 1;
    }
    return 0;
}

/* The same from pixels that g4_vp8l_decode made, which may stand where the canvas does. */
static int g4_webp_put_lossless(g4_webp *p, const uint32_t *argb, g4_pixels *out)
{
    const int has_alpha = p->has_alpha && !p->is_opaque;
    for (int y = 0; y < p->h; y++) {
        uint8_t *rgb = out->rgb + 3 * ((size_t)(p->y + y) * (size_t)out->w + (size_t)p->x);
        for (int x = 0; x < p->w; x++, rgb += 3) {
            const uint32_t v = *argb++, alpha = has_alpha ? v >> 24 : 255;
            for (int c = 0; c < 3; c++) rgb[c] = g4_over_white(v >> (16 - 8 * c) & 255, alpha);
        }
        if (g4_pace_ends(&p->pace, 4 * (size_t)p->w)) return 1;
    }
    return 0;
}

/* ---- Pictures -------------------------------------------------------------------------------- */

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
    g4_vp8_planes planes = { NULL, NULL, NULL, 0 };
    uint8_t *alpha = NULL, *rows = g4_alloc(m->a, (size_t)p->w, 2);
    g4_status s = rows ? G4_OK : g4_fail(err, G4_ERR_MEMORY, "WebP: %d x %d pixels: out of memory", p->w, p->h);
    if (!s && p->alpha && !p->is_opaque) s = g4_webp_alpha(m, p, &alpha, err);
    if (!s) s = g4_vp8_decode(m, p->image + 8, p->image_bytes - 8, (uint32_t)p->w, (uint32_t)p->h, &planes, err);
    if (!s) s = g4_webp_canvas(m, p, out, err);
    if (!s && g4_webp_put_planes(p, &planes, alpha, rows, out)) s = g4_halt_check(m->halt, err);
    g4_free(m->a, planes.y);
    g4_free(m->a, alpha);
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
