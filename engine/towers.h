/* towers.h - the floor of the towers: pictures (vision.c) and sounds (mel.c, audio.c) to soft tokens of the text
 * model's width, and what both towers share (tower.c). They know no engine and no session. */
#ifndef GEMMA4_TOWERS_H
#define GEMMA4_TOWERS_H

#include "../media/media.h"
#include "model.h"

/* ---- What towers share (tower.c) -----------------------------------------------------------------
 *
 * Memory that grows with a picture or a sound holds the residual stream and what attention reads. Everything between is
 * computed tile by tile in buffers of the worker, which stay in cache. All of it is the run's own, so between two parts
 * of a layer the text model may do something else (g4_pool_rest). */

#define G4_TOWER_TILE G4_PAGE /* tokens of a piece of work, and of a tile of keys and values */
static inline int g4_tower_tiles(int n) { return (n + G4_TOWER_TILE - 1) / G4_TOWER_TILE; }

/* A strided view of some tokens' values; it owns nothing. */
typedef struct {
    float *data; /* (n, cols) */
    size_t n, cols;
    size_t stride; /* floats from one token's row to the next */
} g4_view;
static inline float *g4_view_row(g4_view v, size_t t) { return v.data + t * v.stride; }
static inline g4_view g4_view_as(g4_view room, size_t n, size_t cols)
{
    return (g4_view) { room.data, n, cols, room.stride };
}
/* Tile `piece` of all (n, cols), whose rows stand side by side. */
g4_view g4_tower_tile(float *all, size_t cols, int n, int piece);
/* Room for a tile of rows of up to `cols` outputs of linears. Its stride is no multiple of 4 KB, where a load waits for
 * a store to the same place of another row. */
g4_view g4_tower_room(g4_blocks *b, size_t cols);
size_t g4_tower_stride(size_t cols);

/* These write n rows; those with a result write into `y`, which may be x, and return it in x's shape. */
void g4_view_clamp(g4_view x, float lo, float hi);
void g4_view_add(g4_view x, float scale, g4_view y); /* x += scale * y */
g4_view g4_view_copy(g4_view y, g4_view x);
g4_view g4_view_norm(const g4_kernels *kernels, g4_view y, g4_view x, const float *weight, float eps); /* rmsnorm(x) */

/* Gemma4ClippableLinear: y = clamp(w . clamp(x, b0, b1), b2, b3), no bias. */
typedef struct {
    g4_matrix w;
    const float *bounds; /* (4): input min, max, output min, max; NULL: all infinite */
} g4_linear;
g4_linear g4_bind_linear(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t rows, uint64_t cols);
/* A linear of a layer, whose bounds are row `index` of those of the layer (n, 4); +-FLT_MAX bounds nothing. Likewise
 * its static scales of those of the layer (n, 2), which may be NULL. */
g4_linear g4_bind_clipped(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t rows, uint64_t cols,
                          const float *bounds, const float *act, int index);
/* It rounds nothing of its own accord: then nothing else in its tower does. */
int g4_linear_is_float32(const g4_linear *l);

/* What one worker needs for the linears of a tile. */
typedef struct {
    const g4_kernels *kernels;
    float *x;     /* (TILE, padded cols): clamped, zero-padded input, as far as a step of the matrix reaches */
    int16_t *x16; /* (TILE, padded cols): in units of its token, as g4_product16_fn says */
    float *unit;  /* (TILE) */
    int8_t *q;    /* (TILE, padded cols) */
    float *d;     /* (TILE, padded cols / 32) */
    int16_t *sum; /* (TILE, padded cols / 16) */
    g4_acts parts[G4_PARTS]; /* (TILE, padded cols): with static activations */
} g4_linear_work;
/* max_cols: the most of what a linear reads, and of what one with static activations gives. */
void g4_linear_work_open(g4_linear_work *work, g4_blocks *b, const g4_compute *compute, size_t max_cols);
/* y = l(x) for at most TILE tokens; y has room for outputs padded to 16. Returns y in its shape. */
g4_view g4_linear_apply(const g4_linear_work *work, const g4_linear *l, g4_view y, g4_view x);
/* The same right behind g4_linear_apply of `before` to the same x: where both read alike, x is not prepared again. */
g4_view g4_linear_apply_next(const g4_linear_work *work, const g4_linear *l, g4_view y, g4_view x,
                             const g4_linear *before);

/* Most activations of a tower live only while a worker has their tile. With taps, pieces keep a copy of what they will
 * show, and the caller's thread shows it when the job is done. */
typedef struct {
    const char *name; /* as in MODEL.md */
    float *data;      /* (n, cols); NULL: nobody looks */
    int n;
    size_t cols;
} g4_kept;
/* With taps, room for n rows in every one of the kept, whose names and columns are set; without, none. */
void g4_kept_open(g4_kept *kept, int n_kept, g4_blocks *b, const g4_taps *taps, int n);
void g4_keep(const g4_kept *kept, int piece, g4_view x); /* what piece `piece` has of it */
/* Show what was kept, of a layer or of none (-1). */
void g4_kept_show(const g4_kept *kept, int n_kept, const g4_taps *taps, const g4_compute *c, int layer);
/* The same for n rows that stand side by side anyway. */
void g4_tower_show(const g4_taps *taps, const g4_compute *c, const char *name, int layer, const float *x, int n,
                   size_t cols);

/* ---- Vision (vision.c) --------------------------------------------------------------------------- */

typedef struct g4_vision g4_vision;
/* Bind the vision tower's tensors; *out is NULL when the file has none. Failures stand in the binder, and what was
 * built until then is closed like the rest. The file, `compute` and `a` must outlive the tower. */
void g4_vision_bind(g4_vision **out, g4_binder *b, const g4_compute *compute, const g4_allocator *a);
void g4_vision_close(g4_vision *tower); /* NULL is fine */
/* Patches to rows (n_tokens, text hidden); taps may be NULL. */
g4_status g4_vision_forward(const g4_vision *tower, const g4_patches *patches, float *rows, const g4_taps *taps,
                            g4_error *err);

/* ---- Sound to log-mel (mel.c) -------------------------------------------------------------------- */

#define G4_MEL_FRAME 320 /* samples of a frame */
#define G4_MEL_FFT 512
#define G4_MEL_BINS (G4_MEL_FFT / 2 + 1)
#define G4_MEL_BANDS 128
#define G4_MEL_MAX_SAMPLES 480000 /* of a block: 30 s */

typedef struct {
    float window[G4_MEL_FRAME];                          /* periodic Hann, in float32 as in the reference */
    double cos_t[G4_MEL_FFT / 2], sin_t[G4_MEL_FFT / 2]; /* of the angles 2 pi i / G4_MEL_FFT */
    float weight[2 * G4_MEL_BINS]; /* of the bins of band 0, then of band 1, ...: no bin lies in more than two bands */
    int first[G4_MEL_BANDS], count[G4_MEL_BANDS]; /* bins of a band */
} g4_mel;
void g4_mel_open(g4_mel *m);
int g4_mel_frames(size_t n_samples); /* frames of a block of so many samples */
/* Frame f of the block's n samples (G4_MEL_BANDS). */
void g4_mel_frame(const g4_mel *m, const float *samples, size_t n, int f, float *out);

/* ---- Hearing (audio.c) --------------------------------------------------------------------------- */

typedef struct g4_hearing g4_hearing;
/* As g4_vision_bind. */
void g4_hearing_bind(g4_hearing **out, g4_binder *b, const g4_compute *compute, const g4_allocator *a);
void g4_hearing_close(g4_hearing *tower); /* NULL is fine */
int g4_hearing_tokens(size_t n_samples);  /* soft tokens of a block of so many samples */
/* A block of sound to rows (n, text hidden), n = g4_hearing_tokens of its samples; taps may be NULL. */
g4_status g4_hearing_forward(const g4_hearing *tower, const g4_audio *block, int n, float *rows, const g4_taps *taps,
                             g4_error *err);

#endif /* GEMMA4_TOWERS_H */
