/* frames.c - the frames of a video: which are kept, and each in the size in which the tower reads it. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>
#include <string.h>

/* ---- Frames of a video ---------------------------------------------------------------------- */

/* How many frames of a video are kept. */
static g4_status g4_frames_wanted(const g4_media_limits *m, int64_t total, double fps, int *n, g4_error *err)
{
    int64_t want = m->n_frames;
    if (m->fps > 0) {
        const double v = (double)total / fps * m->fps;
        want = v > 1e9 ? 1000000000 : (int64_t)v;
        if (want < 1) want = 1;
    }
    if (want < 1) return g4_fail(err, G4_ERR_ARGUMENT, "video: %" PRId64 " frames asked for, expected 1 or more", want);
    if (want > total) want = total;
    if (want > m->max_frames)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "video: %" PRId64 " frames to keep are more than the limit of %d", want,
                       m->max_frames);
    *n = (int)want;
    return G4_OK;
}

g4_status g4_frames_open(const g4_media_limits *m, int64_t total, double fps, g4_frames *out, g4_error *err)
{
    *out = (g4_frames) { .total = total, .fps = fps };
    const g4_status s = g4_frames_wanted(m, total, fps, &out->n_wanted, err);
    if (s) return s;
    out->frames = g4_alloc(m->a, (size_t)out->n_wanted, sizeof *out->frames);
    out->seconds = g4_alloc(m->a, (size_t)out->n_wanted, sizeof *out->seconds);
    if (out->frames && out->seconds) return G4_OK;
    g4_fail(err, G4_ERR_MEMORY, "video: %d frames: out of memory", out->n_wanted);
    g4_frames_free(m, out);
    return G4_ERR_MEMORY;
}

int64_t g4_frames_next(const g4_frames *f) { return f->n * f->total / f->n_wanted; }

/* The size a frame is kept in. Nonzero: it is scaled to that. */
static int g4_frames_fit(const g4_media_limits *m, int w, int h, int *kept_w, int *kept_h)
{
    const int n = m->frame_tokens ? g4_target_size(w, h, m->frame_tokens, m->frame_side, kept_w, kept_h) : 0;
    if (n > 0 && (int64_t)*kept_w * *kept_h < (int64_t)w * h) return 1;
    *kept_w = w; /* the tower makes it larger than it is */
    *kept_h = h;
    return 0;
}

g4_status g4_frames_check(const g4_media_limits *m, const g4_frames *f, uint64_t w, uint64_t h, g4_error *err)
{
    int kept_w, kept_h;
    const g4_status s = g4_pixels_check(m, "video", w, h, err);
    if (s) return s;
    g4_frames_fit(m, (int)w, (int)h, &kept_w, &kept_h);
    const uint64_t each = (uint64_t)kept_w * (uint64_t)kept_h, left = (uint64_t)(f->n_wanted - f->n);
    if (f->pixels <= m->max_video_pixels && each <= (m->max_video_pixels - f->pixels) / left) return G4_OK;
    return g4_fail(err, G4_ERR_UNSUPPORTED,
                   "video: %d frames of %d x %d to keep are more than the limit of %" PRIu64 " million pixels",
                   f->n_wanted, kept_w, kept_h, m->max_video_pixels / 1000000);
}

g4_status g4_frames_add(const g4_media_limits *m, g4_frames *f, g4_pixels *p, g4_error *err)
{
    int w, h;
    const int is_fitted = g4_frames_fit(m, p->w, p->h, &w, &h);
    const g4_status s = is_fitted ? g4_pixels_resize(m, p, w, h, err) : G4_OK;
    if (s) {
        g4_pixels_free(m, p);
        return s;
    }
    f->seconds[f->n] = (double)g4_frames_next(f) / f->fps;
    f->frames[f->n++] =
        (g4_image) { .pixels = p->rgb, .width = w, .height = h, .fitted = is_fitted ? m->frame_tokens : 0 };
    f->pixels += (uint64_t)w * (uint64_t)h;
    memset(p, 0, sizeof *p);
    return G4_OK;
}

void g4_frames_free(const g4_media_limits *m, g4_frames *f)
{
    for (int i = 0; i < f->n; i++) g4_free_given(m->a, f->frames[i].pixels);
    g4_free(m->a, f->frames);
    g4_free(m->a, f->seconds);
    memset(f, 0, sizeof *f);
}
