/* encode.c - pictures, frames and sounds to soft tokens: the towers run under the engine's lock, and what they made is
 * remembered, so that the same picture is not encoded twice. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "session.h"

/* ---- What the engine remembers ------------------------------------------------------------------- */

/* *out: the soft tokens with that key and one more reference, or NULL. Taps are to see every encoding: then nothing is
 * remembered. */
static g4_status g4_encode_find(g4_soft **out, g4_engine *e, const uint64_t key[2], g4_halt *halt, g4_error *err)
{
    if (e->taps.fn) return G4_OK;
    const g4_status status = g4_engine_enter(e, halt, err);
    if (status) return status;
    *out = g4_soft_cache_find(&e->softs, key);
    g4_engine_unlock(e);
    return G4_OK;
}

/* Soft tokens to be filled by a tower. */
static g4_status g4_encode_new(g4_soft **out, const g4_engine *e, uint32_t token, const uint64_t key[2], int n,
                               g4_error *err)
{
    *out = g4_soft_new(g4_engine_allocator(e), (g4_token)token, key, n, g4_engine_config(e)->hidden);
    return *out ? G4_OK : g4_fail(err, G4_ERR_MEMORY, "%d soft tokens: out of memory", n);
}

/* Into the engine, where a tower is to fill `soft`, or let go of it. */
static g4_status g4_encode_enter(const g4_engine *e, g4_soft *soft, g4_halt *halt, g4_error *err)
{
    const g4_status status = g4_engine_enter(e, halt, err);
    if (status) g4_soft_release(soft);
    return status;
}

/* And out again: remember and give out what the tower filled, or let go of it when that failed or was cut short. */
static g4_status g4_encode_leave(g4_soft **out, g4_engine *e, g4_soft *soft, g4_status status, g4_halt *halt,
                                 g4_error *err)
{
    if (!status) status = g4_halt_check(halt, err);
    if (!status && !e->taps.fn) g4_soft_cache_add(&e->softs, soft);
    g4_engine_unlock(e);
    if (status)
        g4_soft_release(soft);
    else
        *out = soft;
    return status;
}

static g4_status g4_encode_begin(g4_soft **out, const g4_engine *e, g4_error *err)
{
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    return g4_engine_check(e, err);
}

void g4_soft_close(g4_engine *e, g4_soft *soft)
{
    (void)e; /* references are counted without its lock, and a soft token knows its allocator */
    g4_soft_release(soft);
}

/* ---- Pictures and frames ------------------------------------------------------------------------- */

/* A picture is its pixels, its size, what it stands for and its budget. */
static g4_status g4_picture_key(uint64_t key[2], const g4_image *image, uint32_t token, int budget, g4_halt *halt,
                                g4_error *err)
{
    const size_t row = 3 * (size_t)image->width, stride = image->stride ? image->stride : row;
    key[0] = (uint64_t)(uint32_t)image->width << 32 | (uint32_t)image->height;
    key[1] = (uint64_t)token << 32 | (uint32_t)budget << 1 | (image->fitted == budget);
    for (size_t y = 0; y < (size_t)image->height; y++) {
        const g4_status status = g4_halt_check(halt, err);
        if (status) return status;
        g4_soft_hash(key, image->pixels + y * stride, row);
    }
    return G4_OK;
}

static g4_status g4_picture_run(g4_soft **out, g4_engine *e, const g4_patches *patches, g4_soft *soft, g4_halt *halt,
                                g4_error *err)
{
    g4_status status = g4_encode_enter(e, soft, halt, err);
    if (status) return status;
    status = g4_vision_forward(e->vision, patches, soft->rows, g4_taps_given(&e->taps), err);
    return g4_encode_leave(out, e, soft, status, halt, err);
}

g4_status g4_encode_picture(g4_soft **out, g4_engine *e, const g4_image *image, int is_frame, g4_halt *halt,
                            g4_error *err)
{
    g4_status status = g4_encode_begin(out, e, err);
    if (status) return status;
    const g4_config *c = g4_engine_config(e);
    const uint32_t token = is_frame ? c->video_token : c->image_token;
    if (!e->vision || token == 0)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "this model has no vision tower: it cannot look at pictures");
    status = g4_image_check(image, err); /* all of its rows are read for the key */
    if (status) return status;
    const int budget = image->max_tokens != 0 ? image->max_tokens
                       : is_frame             ? G4_FRAME_TOKENS
                                              : (int)c->v_default_tokens;
    uint64_t key[2];
    status = g4_picture_key(key, image, token, budget, halt, err);
    if (!status) status = g4_encode_find(out, e, key, halt, err);
    if (status || *out) return status;

    const g4_allocator *a = g4_engine_allocator(e);
    g4_patches patches;
    status = g4_image_patches(a, image, budget, (int)c->v_patch, (int)c->v_pool, halt, &patches, err);
    if (status) return status;
    g4_soft *soft;
    status = g4_encode_new(&soft, e, token, key, patches.n_tokens, err);
    if (!status) status = g4_picture_run(out, e, &patches, soft, halt, err);
    g4_patches_free(a, &patches);
    return status;
}

g4_status g4_image_encode(g4_soft **out, g4_engine *e, const g4_image *image, g4_error *err)
{
    g4_halt halt;
    return g4_encode_picture(out, e, image, 0, g4_engine_halt(e, &halt), err);
}

g4_status g4_frame_encode(g4_soft **out, g4_engine *e, const g4_image *frame, g4_error *err)
{
    g4_halt halt;
    return g4_encode_picture(out, e, frame, 1, g4_engine_halt(e, &halt), err);
}

/* ---- Sound --------------------------------------------------------------------------------------- */

static g4_status g4_sound_check(const g4_engine *e, const g4_audio *block, g4_error *err)
{
    if (!e->hearing || g4_engine_config(e)->audio_token == 0)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "this model has no audio tower: it cannot hear");
    if (!block || !block->samples) return g4_fail(err, G4_ERR_ARGUMENT, "the sound is empty");
    if (block->n_samples > G4_MEL_MAX_SAMPLES)
        return g4_fail(err, G4_ERR_ARGUMENT,
                       "a block of %zu samples: at most %d (30 s) fit, g4_audio_block cuts longer sound",
                       block->n_samples, G4_MEL_MAX_SAMPLES);
    if (g4_hearing_tokens(block->n_samples) == 0)
        return g4_fail(err, G4_ERR_ARGUMENT,
                       "a sound of %zu samples is too short to be heard: 161 (0.01 s) are the least", block->n_samples);
    return G4_OK;
}

static g4_status g4_sound_run(g4_soft **out, g4_engine *e, const g4_audio *block, g4_soft *soft, g4_halt *halt,
                              g4_error *err)
{
    g4_status status = g4_encode_enter(e, soft, halt, err);
    if (status) return status;
    status = g4_hearing_forward(e->hearing, block, soft->n, soft->rows, g4_taps_given(&e->taps), err);
    return g4_encode_leave(out, e, soft, status, halt, err);
}

g4_status g4_encode_sound(g4_soft **out, g4_engine *e, const g4_audio *block, g4_halt *halt, g4_error *err)
{
    g4_status status = g4_encode_begin(out, e, err);
    if (!status) status = g4_sound_check(e, block, err);
    if (status) return status;
    const uint32_t token = g4_engine_config(e)->audio_token;
    uint64_t key[2] = { block->n_samples, (uint64_t)token << 32 };
    g4_soft_hash(key, block->samples, block->n_samples * sizeof *block->samples);
    status = g4_encode_find(out, e, key, halt, err);
    if (status || *out) return status;
    g4_soft *soft;
    status = g4_encode_new(&soft, e, token, key, g4_hearing_tokens(block->n_samples), err);
    return status ? status : g4_sound_run(out, e, block, soft, halt, err);
}

g4_status g4_audio_encode(g4_soft **out, g4_engine *e, const g4_audio *block, g4_error *err)
{
    g4_halt halt;
    return g4_encode_sound(out, e, block, g4_engine_halt(e, &halt), err);
}
