/* inputs.c - what the command line, a message or a document names: texts, and the media that become soft tokens. A
 * medium is loaded with its budget of soft tokens, which is the caller's wish and not the file's. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

static int read_inputs(const arguments *a, int (*read_file)(const char *, buffer *), buffer *out)
{
    if (a->n_inputs == 0) return read_file("-", out);
    for (int i = 0; i < a->n_inputs; i++) {
        if (a->inputs[i].kind == INPUT_TEXT) {
            buffer_str(out, a->inputs[i].value);
        } else {
            int status = read_file(a->inputs[i].value, out);
            if (status != DONE) return status;
        }
    }
    return out->failed ? say(FAILED, "no memory for the prompt") : DONE;
}

int inputs_bytes(const arguments *a, buffer *out) { return read_inputs(a, file_read, out); }
int inputs_text(const arguments *a, buffer *out) { return read_inputs(a, text_read, out); }

int text_or_file(const char *value, int is_text, buffer *out)
{
    if (!is_text) return source_read(value, out);
    buffer_str(out, value);
    return out->failed ? say(FAILED, "no memory for a text") : DONE;
}

g4_part_kind input_part(input_kind kind)
{
    switch (kind) {
    case INPUT_IMAGE: return G4_PART_IMAGE;
    case INPUT_AUDIO: return G4_PART_AUDIO;
    case INPUT_VIDEO: return G4_PART_VIDEO;
    case INPUT_TEXT:
    case INPUT_FILE: break;
    }
    return G4_PART_TEXT;
}

int media_budget(const arguments *a, g4_part_kind kind)
{
    return kind == G4_PART_IMAGE ? a->image_tokens : kind == G4_PART_VIDEO ? a->frame_tokens : 0;
}

g4_media_options media_options(const arguments *a, int want_sound)
{
    return (g4_media_options) { .ffmpeg = a->ffmpeg,
                                .max_pixels = (uint64_t)a->max_pixels,
                                .max_file_bytes = (uint64_t)a->max_file << 20,
                                .n_frames = a->frames,
                                .fps = a->fps,
                                .frame_times = a->frame_times,
                                .want_sound = want_sound && !a->no_video_audio,
                                .limits = until_interrupted() };
}

/* What was just loaded tells its budget from here on: a picture by itself, a video by frames of our own. */
static int medium_take(medium *m, g4_part_kind kind, int budget)
{
    m->kind = kind;
    m->image.max_tokens = budget;
    m->video = m->loaded;
    if (kind != G4_PART_VIDEO) return DONE;
    m->frames = calloc((size_t)m->loaded.n_frames + 1, sizeof *m->frames);
    if (m->frames == NULL) {
        medium_free(m);
        return say(FAILED, "no memory for the frames");
    }
    for (int i = 0; i < m->loaded.n_frames; i++) {
        m->frames[i] = m->loaded.frames[i];
        m->frames[i].max_tokens = budget;
    }
    m->video.frames = m->frames;
    return DONE;
}

static g4_status decode(medium *m, g4_part_kind kind, const void *data, size_t size, const g4_media_options *opt,
                        g4_error *err)
{
    if (kind == G4_PART_IMAGE) return g4_image_decode(&m->image, data, size, opt, err);
    if (kind == G4_PART_AUDIO) return g4_audio_decode(&m->audio, data, size, opt, err);
    return g4_video_decode(&m->loaded, data, size, opt, err);
}

int medium_decode(medium *m, g4_part_kind kind, const void *data, size_t size, int budget, const g4_media_options *opt)
{
    g4_error err;
    return decode(m, kind, data, size, opt, &err) == G4_OK ? medium_take(m, kind, budget) : report(&err);
}

/* Would the whole of what begins so be refused too? A medium that only ends too early is no unsupported one. */
static int check_start(g4_part_kind kind, const buffer *start, const g4_media_options *opt)
{
    g4_media_options of_start = *opt;
    g4_error err;
    medium m = { 0 };
    of_start.max_pixels_per_byte = UINT64_MAX; /* its bytes are not all there */
    const g4_status result = decode(&m, kind, buffer_text(start), start->len, &of_start, &err);
    if (result == G4_OK) m.kind = kind;
    medium_free(&m);
    return result == G4_ERR_UNSUPPORTED || result == G4_ERR_CANCELED ? report(&err) : DONE;
}

/* What is longer than most pictures may have no end: its start is looked at before the rest is read. */
static int load_standard_input(medium *m, g4_part_kind kind, int budget, const g4_media_options *opt)
{
    buffer data = { 0 };
    int status = medium_start(&data);
    if (status == DONE && data.len >= MEDIUM_START) {
        status = check_start(kind, &data, opt);
        if (status == DONE) status = medium_rest(&data, g4_media_max_bytes(opt, kind == G4_PART_IMAGE));
    }
    if (status == DONE && data.len == 0) status = say(FAILED, "standard input is empty");
    if (status == DONE) status = medium_decode(m, kind, buffer_text(&data), data.len, budget, opt);
    buffer_free(&data);
    return status;
}

/* Frames need no more pixels than the model sees of them. */
static g4_media_options with_budget(const g4_media_options *opt, int budget)
{
    g4_media_options how = *opt;
    how.frame_tokens = budget != 0 ? budget : FRAME_TOKENS;
    return how;
}

int medium_load(medium *m, g4_part_kind kind, const char *path, int budget, const g4_media_options *opt)
{
    const g4_media_options how = with_budget(opt, budget);
    g4_error err;
    g4_status result = G4_OK;
    if (strcmp(path, "-") == 0) return load_standard_input(m, kind, budget, &how);
    if (kind == G4_PART_IMAGE) result = g4_image_load(&m->image, path, &how, &err);
    if (kind == G4_PART_AUDIO) result = g4_audio_load(&m->audio, path, &how, &err);
    if (kind == G4_PART_VIDEO) result = g4_video_load(&m->loaded, path, &how, &err);
    return result == G4_OK ? medium_take(m, kind, budget) : report(&err);
}

void medium_free(medium *m)
{
    if (m->own != NULL)
        free(m->own);
    else if (m->kind == G4_PART_IMAGE)
        g4_image_free(&m->image, NULL);
    else if (m->kind == G4_PART_AUDIO)
        g4_audio_free(&m->audio, NULL);
    else if (m->kind == G4_PART_VIDEO)
        g4_video_free(&m->loaded, NULL);
    free(m->frames);
    *m = (medium) { 0 };
}

g4_audio sound_block(const g4_audio *sound, size_t from)
{
    return (g4_audio) { .samples = sound->samples + from, .n_samples = g4_audio_block(sound, from) };
}
