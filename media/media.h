/* media.h - what the files of media/ share: pictures, sound and video as people have them, to pixels, patches and
 * samples. They stand on the base floor and know nothing of models. */
#ifndef GEMMA4_MEDIA_H
#define GEMMA4_MEDIA_H

#include "../engine/base.h"

#include <stdio.h>

/* ---- What the readers share (picture.c) -------------------------------------------------- */

/* The options of a call with every default filled in. */
typedef struct {
    const g4_allocator *a;
    const char *ffmpeg;
    uint64_t max_pixels, max_samples, max_file_bytes;
    int max_frames, n_frames, want_sound;
    double fps;
} g4_media;
g4_media g4_media_resolve(const g4_media_options *opt);
g4_status g4_pixels_alloc(const g4_media *m, const char *kind, uint64_t w, uint64_t h, uint8_t **out, g4_error *err);
int g4_exif_orientation(const uint8_t *p, size_t n);
g4_status g4_orient(const g4_media *m, uint8_t **pixels, int *w, int *h, int orientation, g4_error *err);
int64_t g4_frame_index(int64_t i, int64_t total, int64_t n);
g4_status g4_frame_count(const g4_media *m, int64_t total, double fps, int *n, g4_error *err);
g4_status g4_video_alloc(const g4_media *m, int n, g4_video *out, g4_error *err);
void g4_video_clear(const g4_media *m, g4_video *v);

static inline uint32_t g4_be16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }

static inline uint32_t g4_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint32_t g4_le16(const uint8_t *p) { return (uint32_t)p[1] << 8 | p[0]; }

static inline uint32_t g4_le32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

/* v with coverage a over white, rounded as Pillow's alpha_composite does (AlphaComposite.c, 7 extra bits). */
static inline uint8_t g4_over_white(uint32_t v, uint32_t a)
{
    uint32_t t = (v * a + 255 * (255 - a) + 0x80) << 7;
    return (uint8_t)((((t >> 8) + t) >> 8) >> 7);
}

/* v cut to 0..255. */
static inline uint8_t g4_clamp_u8(int32_t v) { return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v); }

/* ---- Zlib streams (inflate.c) ------------------------------------------------------------ */

typedef struct {
    const uint8_t *p, *end;                                         /* the piece being read */
    int (*next)(void *ctx, const uint8_t **p, const uint8_t **end); /* the next piece; 0: there is none */
    void *ctx;
    uint64_t bits;             /* next bit lowest */
    unsigned n_bits, invented; /* bits held; zero bytes put in after the end */
} g4_bits;
uint32_t g4_adler32(const uint8_t *p, size_t n);
const char *g4_inflate(const g4_allocator *a, g4_bits *b, uint8_t *out, size_t size);

/* ---- Pictures to patches (patches.c) ------------------------------------------------------- */

typedef struct {        /* what the vision tower reads: the real patches, no padding */
    int n;              /* grid_w * grid_h, row by row */
    int grid_w, grid_h; /* patches; multiples of pool */
    int n_tokens;       /* n / (pool * pool) */
    float *pixels;      /* (n, patch rows, patch columns, 3): 0..1, channel fastest */
    int32_t *pos;       /* (n, 2): x, y in the grid */
} g4_patches;
/* budget: 70, 140, 280, 560 or 1120, or 0 for img->max_tokens or 280; anything else is G4_ERR_ARGUMENT. */
g4_status g4_image_patches(const g4_allocator *a, const g4_image *img, int budget, int patch, int pool, g4_patches *out,
                           g4_error *err);
void g4_patches_free(const g4_allocator *a, g4_patches *p);

/* ---- Pictures (png.c, jpeg.c, pnm.c) ----------------------------------------------------- */

g4_status g4_png_decode(const g4_media *m, const uint8_t *data, size_t size, uint8_t **pixels, int *w, int *h,
                        g4_error *err);
g4_status g4_jpeg_decode(const g4_media *m, const uint8_t *data, size_t size, uint8_t **pixels, int *w, int *h,
                         g4_error *err);

typedef struct {
    const uint8_t *data;
    size_t size, at;
} g4_pnm;
int64_t g4_pnm_number(g4_pnm *p, int max_digits);
g4_status g4_pnm_decode(const g4_media *m, const uint8_t *data, size_t size, uint8_t **pixels, int *w, int *h,
                        g4_error *err);

/* ---- Sound (wav.c) ----------------------------------------------------------------------- */

#define G4_RATE 16000
typedef struct {
    uint32_t tag, channels, rate, bytes;
} g4_wav_format; /* bytes: of one sample of one channel */
g4_status g4_resample(const g4_media *m, float *x, uint64_t n_in, uint32_t rate, g4_audio *out, g4_error *err);
g4_status g4_wav_fmt(g4_wav_format *f, const uint8_t *p, size_t n, int *foreign, g4_error *err);
float g4_wav_mono(const g4_wav_format *f, const uint8_t *frame);
g4_status g4_wav_decode(const g4_media *m, const uint8_t *data, size_t size, g4_audio *out, int *foreign,
                        g4_error *err);

/* ---- Video (y4m.c) ----------------------------------------------------------------------- */

typedef struct {
    const uint8_t *data; /* NULL: read f */
    FILE *f;
    uint64_t size, at;
} g4_source;
g4_status g4_y4m_frames(const g4_media *m, g4_source *src, g4_video *out, int *foreign, g4_error *err);

/* ---- The ffmpeg program (ffmpeg.c) ------------------------------------------------------- */

typedef struct {
    const char *path; /* the file to read; NULL: fd */
    int fd;           /* an open file that becomes the program's standard input, or -1 */
} g4_input;
g4_status g4_ffmpeg_image(const g4_media *m, const g4_input *in, g4_image *out, g4_error *err);
g4_status g4_ffmpeg_audio(const g4_media *m, const g4_input *in, g4_audio *out, g4_error *err);
g4_status g4_ffmpeg_video(const g4_media *m, const g4_input *in, g4_video *out, g4_error *err);

#endif /* GEMMA4_MEDIA_H */
