/* towers.c - what the towers of a model read and what they make of it: soft tokens of a picture, a sound or a video,
 * the log-mel frames of a sound, the patches of a picture, each into the file of -o. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

enum { SAMPLE_RATE = 16000, MEL_BINS = 128 };

/* ---- Soft tokens ----------------------------------------------------------------------------------- */

void soft_list_free(g4_engine *e, soft_list *s)
{
    for (int i = 0; i < s->n; i++) g4_soft_close(e, s->soft[i]);
    free(s->soft);
    free(s->times);
}

/* Take what an encoder returned. */
static int soft_list_add(soft_list *s, g4_engine *e, g4_status result, g4_soft *soft, const g4_error *err)
{
    if (result != G4_OK) return report(err);
    g4_soft **grown = realloc(s->soft, ((size_t)s->n + 1) * sizeof *grown);
    if (grown == NULL) {
        g4_soft_close(e, soft);
        return say(FAILED, "no memory for soft tokens");
    }
    s->soft = grown;
    grown[s->n++] = soft;
    return interrupted();
}

static int encode_picture(soft_list *s, g4_engine *e, const g4_image *image)
{
    g4_soft *soft;
    g4_error err;
    g4_status result = g4_image_encode(&soft, e, image, &err);
    return soft_list_add(s, e, result, soft, &err);
}

static int encode_frames(soft_list *s, g4_engine *e, const g4_video *video)
{
    int status = DONE;
    s->times = calloc((size_t)video->n_frames + 1, sizeof *s->times);
    if (s->times == NULL) return say(FAILED, "no memory for the times of frames");
    for (int i = 0; status == DONE && i < video->n_frames; i++) {
        g4_soft *soft;
        g4_error err;
        g4_status result = g4_frame_encode(&soft, e, &video->frames[i], &err);
        status = soft_list_add(s, e, result, soft, &err);
        if (status == DONE) s->times[s->n_frames++] = video->seconds[i];
    }
    return status;
}

static int encode_sound(soft_list *s, g4_engine *e, const g4_audio *sound, const char *path, int quiet)
{
    g4_audio block = sound_block(sound, 0);
    int status = block.n_samples > 0 ? DONE : say(FAILED, "%s: there is no sound in it", path);
    for (size_t from = 0; status == DONE && block.n_samples > 0; block = sound_block(sound, from)) {
        g4_soft *soft;
        g4_error err;
        g4_status result = g4_audio_encode(&soft, e, &block, &err);
        status = soft_list_add(s, e, result, soft, &err);
        from += block.n_samples;
        if (status == DONE && from < sound->n_samples && !quiet) {
            say(DONE, "%s: %.1f s are more than the 30 s of a block: cut at %.2f s, where it is quiet", path,
                (double)sound->n_samples / SAMPLE_RATE, (double)from / SAMPLE_RATE);
        }
    }
    return status;
}

int soft_list_encode(soft_list *s, g4_engine *e, const arguments *a, const input *file, int want_sound)
{
    g4_media_options opt = media_options(a, want_sound);
    g4_engine_info info;
    medium m = { 0 };
    g4_engine_get_info(e, &info);
    opt.frame_side = info.vision_side;
    int status = medium_load(&m, input_part(file->kind), file->value, file->budget, &opt);
    double start = seconds_now();
    if (status == DONE && m.kind == G4_PART_IMAGE) status = encode_picture(s, e, &m.image);
    if (status == DONE && m.kind == G4_PART_AUDIO) status = encode_sound(s, e, &m.audio, file->value, a->quiet);
    if (status == DONE && m.kind == G4_PART_VIDEO) status = encode_frames(s, e, &m.video);
    if (status == DONE && m.kind == G4_PART_VIDEO && m.video.sound != NULL)
        status = encode_sound(s, e, m.video.sound, file->value, a->quiet);
    s->seconds = seconds_now() - start;
    medium_free(&m);
    return status;
}

int run_encode(arguments *a)
{
    g4_engine *e = NULL;
    g4_engine_info info;
    soft_list softs = { 0 };
    output_file out = { 0 };
    long n = 0;
    if (a->n_inputs != 1) return say(USAGE, "encode needs one of --image, --audio and --video");
    if (a->output == NULL) return say(USAGE, "encode needs -o FILE");
    if (a->json && strcmp(a->output, "-") == 0) {
        return say(USAGE, "--json is standard output: give -o a file, or /dev/null");
    }
    int status = model_open(&e, a);
    if (status != DONE) return status;
    g4_engine_get_info(e, &info);
    status = soft_list_encode(&softs, e, a, &a->inputs[0], 0);
    if (status == DONE) status = output_open(&out, a->output);
    for (int i = 0; status == DONE && i < softs.n; i++) {
        size_t rows = (size_t)g4_soft_n(softs.soft[i]);
        n += (long)rows;
        if (output_write(&out, g4_soft_rows(softs.soft[i]), rows * (size_t)info.hidden * sizeof(float)) != 0) break;
    }
    status = output_close(&out, status);
    if (status == DONE) fprintf(stderr, "shape %ld %d\n", n, info.hidden);
    if (status == DONE && a->json) printf("{\"tokens\":%ld,\"seconds\":%.4f}\n", n, softs.seconds);
    soft_list_free(e, &softs);
    g4_engine_close(e);
    return status;
}

/* ---- What the towers read --------------------------------------------------------------------------- */

/* The block of that index. Without samples there is none, and *index becomes the number of blocks. */
static g4_audio find_block(const g4_audio *sound, int *index)
{
    g4_audio block = sound_block(sound, 0);
    size_t from = 0;
    int i = 0;
    for (; i < *index && block.n_samples > 0; i++) {
        from += block.n_samples;
        block = sound_block(sound, from);
    }
    *index = i;
    return block;
}

static int write_mel(const g4_audio *block, int frames, const char *path)
{
    output_file out = { 0 };
    float *mel = calloc((size_t)frames, MEL_BINS * sizeof *mel);
    int status = mel != NULL ? output_open(&out, path) : say(FAILED, "no memory for the frames");
    if (status == DONE) {
        g4_audio_mel(block, mel);
        output_write(&out, mel, (size_t)frames * MEL_BINS * sizeof *mel);
    }
    status = output_close(&out, status);
    if (status == DONE) fprintf(stderr, "shape %d %d\n", frames, MEL_BINS);
    free(mel);
    return status;
}

int run_mel(arguments *a)
{
    g4_media_options opt = media_options(a, 0);
    medium m = { 0 };
    if (a->n_inputs != 1) return say(USAGE, "mel needs one -f FILE");
    if (a->output == NULL) return say(USAGE, "mel needs -o FILE");
    const char *path = a->inputs[0].value;
    int status = medium_load(&m, G4_PART_AUDIO, path, 0, &opt);
    if (status != DONE) return status;
    int index = a->block;
    g4_audio block = find_block(&m.audio, &index);
    int frames = block.n_samples > 0 ? g4_audio_mel(&block, NULL) : 0;
    if (block.n_samples == 0) {
        status = say(FAILED, "%s has no block %d: it ends with block %d", path, a->block, index - 1);
    } else if (frames <= 0) {
        status = say(FAILED, "%s: block %d is too short for a frame", path, a->block);
    } else {
        status = write_mel(&block, frames, a->output);
    }
    medium_free(&m);
    return status;
}

int run_patches(arguments *a)
{
    enum { VALUES = 16 * 16 * 3 }; /* of a patch */
    g4_media_options opt = media_options(a, 0);
    medium m = { 0 };
    g4_patches patches = { 0 };
    output_file out = { 0 };
    g4_error err;
    if (a->n_inputs != 1) return say(USAGE, "patches needs one -f FILE");
    if (a->output == NULL) return say(USAGE, "patches needs -o FILE");
    int status = medium_load(&m, G4_PART_IMAGE, a->inputs[0].value, a->image_tokens, &opt);
    if (status == DONE && g4_patches_make(&patches, &m.image, &opt, &err) != G4_OK) status = report(&err);
    if (status == DONE) status = output_open(&out, a->output);
    if (status == DONE) output_write(&out, patches.pixels, (size_t)patches.n * VALUES * sizeof(float));
    status = output_close(&out, status);
    if (status == DONE) fprintf(stderr, "shape %d %d\n", patches.n, VALUES);
    g4_patches_close(&patches, &opt);
    medium_free(&m);
    return status;
}
