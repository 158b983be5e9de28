/* picture.c - what the readers share: options, limits, memory for pixels, orientation, the frames of a video. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>

g4_media g4_media_resolve(const g4_media_options *opt)
{
    static const g4_media_options none;
    if (!opt) opt = &none;
    g4_media m = { opt->allocator,
                   opt->ffmpeg ? opt->ffmpeg : "ffmpeg",
                   opt->max_pixels ? opt->max_pixels : (uint64_t)64 << 20,
                   opt->max_samples ? opt->max_samples : UINT64_C(230400000),
                   opt->max_file_bytes ? opt->max_file_bytes : (uint64_t)4 << 30,
                   opt->max_frames ? opt->max_frames : 1024,
                   opt->n_frames ? opt->n_frames : 32,
                   opt->want_sound,
                   opt->fps };
    return m;
}

/* Memory for (h, w, 3) pixels, after the check of the limit. */
g4_status g4_pixels_alloc(const g4_media *m, const char *kind, uint64_t w, uint64_t h, uint8_t **out, g4_error *err)
{
    *out = NULL;
    if (w == 0 || h == 0 || w > INT32_MAX || h > INT32_MAX)
        return g4_fail(err, G4_ERR_FORMAT, "%s: size %" PRIu64 " x %" PRIu64 ", expected 1..2147483647 each way", kind,
                       w, h);
    if (w * h > m->max_pixels)
        return g4_fail(err, G4_ERR_UNSUPPORTED,
                       "%s: %" PRIu64 " x %" PRIu64 " pixels are more than the limit of %" PRIu64, kind, w, h,
                       m->max_pixels);
    *out = w * h > SIZE_MAX / 3 ? NULL : g4_alloc(m->a, (size_t)(w * h), 3);
    return *out ? G4_OK
                : g4_fail(err, G4_ERR_MEMORY, "%s: %" PRIu64 " x %" PRIu64 " pixels: out of memory", kind, w, h);
}

/* Orientation (1..8) in a TIFF block, as EXIF holds it; 1 when there is none or it makes no sense. */
int g4_exif_orientation(const uint8_t *p, size_t n)
{
    if (n < 8) return 1;
    int big = p[0] == 'M' && p[1] == 'M';
    if (!big && !(p[0] == 'I' && p[1] == 'I')) return 1;
    uint32_t (*u16)(const uint8_t *) = big ? g4_be16 : g4_le16;
    uint32_t (*u32)(const uint8_t *) = big ? g4_be32 : g4_le32;
    size_t ifd = u32(p + 4);
    if (u16(p + 2) != 42 || ifd > n - 2) return 1;
    uint32_t entries = u16(p + ifd);
    for (uint32_t i = 0; i < entries && ifd + 2 + 12 * (size_t)(i + 1) <= n; i++) {
        const uint8_t *e = p + ifd + 2 + 12 * (size_t)i; /* tag, type, count, value */
        if (u16(e) != 0x0112) continue;
        uint32_t v = u16(e + 2) == 3 ? u16(e + 8) : u16(e + 2) == 4 ? u32(e + 8) : 1; /* SHORT or LONG */
        return v >= 1 && v <= 8 ? (int)v : 1;
    }
    return 1;
}

/* Turn *pixels (w, h) upright. 2 mirror, 3 half turn, 4 upside down, 5 transpose, 6 turn right, 7 transverse, 8 turn
 * left. */
g4_status g4_orient(const g4_media *m, uint8_t **pixels, int *w, int *h, int orientation, g4_error *err)
{
    if (orientation <= 1) return G4_OK;
    size_t sw = (size_t)*w, sh = (size_t)*h, dw = orientation >= 5 ? sh : sw, dh = orientation >= 5 ? sw : sh;
    const uint8_t *src = *pixels;
    uint8_t *dst = g4_alloc(m->a, sw * sh, 3);
    if (!dst) return g4_fail(err, G4_ERR_MEMORY, "turning a picture of %zu x %zu: out of memory", sw, sh);
    for (size_t y = 0; y < dh; y++) {
        for (size_t x = 0; x < dw; x++) {
            size_t u = orientation >= 5 ? y : x,
                   v = orientation >= 5 ? x : y; /* source column and row before mirroring */
            if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8) u = sw - 1 - u;
            if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7) v = sh - 1 - v;
            memcpy(dst + 3 * (y * dw + x), src + 3 * (v * sw + u), 3);
        }
    }
    g4_free(m->a, *pixels);
    *pixels = dst;
    *w = (int)dw;
    *h = (int)dh;
    return G4_OK;
}

/* i * total / n for the i-th of n sampled frames; how many are sampled (transformers, video_utils / video_processing:
 * sample_frames). */
int64_t g4_frame_index(int64_t i, int64_t total, int64_t n) { return i * total / n; }
g4_status g4_frame_count(const g4_media *m, int64_t total, double fps, int *n, g4_error *err)
{
    int64_t want = m->n_frames;
    if (m->fps > 0) {
        double v = (double)total / fps * m->fps;
        want = v > 1e9 ? 1000000000 : (int64_t)v;
        if (want < 1) want = 1;
    }
    if (want < 1)
        return g4_fail(err, G4_ERR_ARGUMENT, "video: %lld frames asked for, expected 1 or more", (long long)want);
    if (want > total) want = total;
    if (want > m->max_frames)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "video: %lld frames to keep are more than the limit of %d",
                       (long long)want, m->max_frames);
    *n = (int)want;
    return G4_OK;
}

/* Room for n frames and their times. */
g4_status g4_video_alloc(const g4_media *m, int n, g4_video *out, g4_error *err)
{
    g4_image *frames = g4_alloc(m->a, (size_t)n, sizeof *frames);
    double *seconds = g4_alloc(m->a, (size_t)n, sizeof *seconds);
    out->frames = frames;
    out->seconds = seconds;
    return frames && seconds ? G4_OK : g4_fail(err, G4_ERR_MEMORY, "video: %d frames: out of memory", n);
}

void g4_video_clear(const g4_media *m, g4_video *v)
{
    for (int i = 0; i < v->n_frames; i++)
        g4_free(m->a, (void *)(uintptr_t)v->frames[i].pixels); /* ours, though the user sees const */
    g4_free(m->a, (void *)(uintptr_t)v->frames);
    g4_free(m->a, (void *)(uintptr_t)v->seconds);
    if (v->sound) g4_free(m->a, (void *)(uintptr_t)v->sound->samples);
    g4_free(m->a, (void *)(uintptr_t)v->sound);
    memset(v, 0, sizeof *v);
}
