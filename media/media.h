/* media.h - what the files of media/ share: pictures, sound and video as people have them, to pixels, patches and samples.
 * They stand on the base floor and know nothing of models. */
#ifndef GEMMA4_MEDIA_H
#define GEMMA4_MEDIA_H

#include "../engine/base.h"

/* ---- Pictures to patches (media.c) --------------------------------------------------------- */

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

#endif /* GEMMA4_MEDIA_H */
