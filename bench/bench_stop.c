/* How long a call goes on after it was cancelled: by kind of call, the longest of some trials at random moments.
 * usage: bench_stop MODEL.g4 [TRIALS [PICTURE.png [SOUND.wav]]] */
#define _GNU_SOURCE 1 /* clock_gettime, nanosleep under -std=c11 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gemma4.h"

enum { PROMPT = 512, CONTEXT = 2048 };

static double g4_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct {
    g4_engine *e;
    g4_cancel cancel; /* in all limits */
    g4_session *s;
    g4_image image;
    g4_audio sound;
    uint8_t *pixels; /* a copy */
    float *samples;
    g4_token text[CONTEXT];
    uint32_t seed;
    double after, asked; /* seconds; when it was cancelled */
    atomic_int ended;
} g4_stop_bench;

static void *g4_ask(void *arg)
{
    g4_stop_bench *b = arg;
    const double until = g4_now() + b->after;
    const struct timespec nap = { 0, 200000 };
    while (g4_now() < until && !atomic_load(&b->ended)) nanosleep(&nap, NULL);
    b->asked = g4_now();
    g4_cancel_set(&b->cancel);
    return NULL;
}

static g4_status g4_run_prompt(g4_stop_bench *b) { return g4_session_eval(b->s, b->text + 1, PROMPT, NULL); }
static g4_status g4_run_generate(g4_stop_bench *b)
{
    return g4_session_generate(b->s, &(g4_generate_options) { .max_tokens = 40, .ignore_stop_ids = 1, .no_guard = 1 },
                               NULL, NULL);
}
static g4_status g4_run_sync(g4_stop_bench *b)
{
    return g4_session_sync(b->s, &(g4_prompt) { .tokens = b->text + 3, .n = PROMPT }, NULL, NULL);
}
static g4_status g4_run_picture(g4_stop_bench *b)
{
    g4_soft *soft = NULL;
    b->pixels[0]++; /* not one that is remembered */
    const g4_image image = { .pixels = b->pixels, .width = b->image.width, .height = b->image.height };
    const g4_status st = g4_image_encode(&soft, b->e, &image, NULL);
    g4_soft_close(b->e, soft);
    return st;
}
static g4_status g4_run_sound(g4_stop_bench *b)
{
    g4_soft *soft = NULL;
    b->samples[0] += 0.001f;
    const g4_audio block = { .samples = b->samples, .n_samples = g4_audio_block(&b->sound, 0) };
    const g4_status st = g4_audio_encode(&soft, b->e, &block, NULL);
    g4_soft_close(b->e, soft);
    return st;
}
static g4_status g4_run_prefault(g4_stop_bench *b) { return g4_engine_prefault(b->e, NULL, NULL, NULL); }

/* Run once whole, then `trials` times cancelled at a moment inside that time. */
static void g4_measure(g4_stop_bench *b, const char *name, g4_status (*run)(g4_stop_bench *b), int trials)
{
    double longest = 0, whole = 0;
    int stopped = 0;
    for (int trial = 0; trial <= trials; trial++) {
        pthread_t thread;
        b->seed = b->seed * 1664525u + 1013904223u;
        b->after = trial == 0 ? 1e9 : whole * (b->seed >> 8) / 16777216.0;
        atomic_store(&b->ended, 0);
        g4_cancel_clear(&b->cancel);
        if (g4_session_rewind(b->s, 20, NULL) || pthread_create(&thread, NULL, g4_ask, b)) return;
        const double start = g4_now();
        const g4_status st = run(b);
        const double end = g4_now();
        atomic_store(&b->ended, 1);
        pthread_join(thread, NULL);
        if (trial == 0) whole = end - start;
        if (trial > 0 && st == G4_ERR_CANCELED) {
            stopped++;
            if (end - b->asked > longest) longest = end - b->asked;
        }
    }
    g4_cancel_clear(&b->cancel);
    printf("%-10s %9.1f ms whole, cancelled %3d times, the longest went on for %6.2f ms\n", name, 1e3 * whole, stopped,
           1e3 * longest);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static g4_stop_bench b;
    g4_error err;
    g4_engine_info info;
    const int trials = argc > 2 ? atoi(argv[2]) : 10;
    const g4_limits limits = { .cancel = &b.cancel };
    if (argc < 2) return fprintf(stderr, "usage: bench_stop MODEL.g4 [TRIALS [PICTURE.png [SOUND.wav]]]\n"), 2;
    const g4_engine_options eo = { .model_path = argv[1], .limits = limits };
    if (g4_engine_open(&b.e, &eo, &err) ||
        g4_session_open(&b.s, b.e, &(g4_session_options) { .n_ctx = CONTEXT, .limits = limits }, &err) ||
        g4_image_load(&b.image, argc > 3 ? argv[3] : "examples/scene.png", NULL, &err) ||
        g4_audio_load(&b.sound, argc > 4 ? argv[4] : "examples/speech.wav", NULL, &err))
        return fprintf(stderr, "bench_stop: %s\n", err.message), 1;
    const size_t n_pixels = 3 * (size_t)b.image.width * (size_t)b.image.height;
    b.pixels = malloc(n_pixels);
    b.samples = malloc(b.sound.n_samples * sizeof *b.samples);
    if (!b.pixels || !b.samples) return fprintf(stderr, "bench_stop: no memory\n"), 1;
    memcpy(b.pixels, b.image.pixels, n_pixels);
    memcpy(b.samples, b.sound.samples, b.sound.n_samples * sizeof *b.samples);
    g4_engine_get_info(b.e, &info);
    for (int i = 0; i < CONTEXT; i++) b.text[i] = 100 + i * 37 % (info.n_vocab - 200);
    if (g4_session_eval(b.s, b.text, 20, &err)) return fprintf(stderr, "bench_stop: %s\n", err.message), 1;
    printf("%s, %s, %d threads\n", info.name, info.isa, info.n_threads);
    g4_measure(&b, "prompt", g4_run_prompt, trials);
    g4_measure(&b, "sync", g4_run_sync, trials);
    g4_measure(&b, "generate", g4_run_generate, trials);
    if (info.has_image) g4_measure(&b, "picture", g4_run_picture, trials);
    if (info.has_audio) g4_measure(&b, "sound", g4_run_sound, trials);
    g4_measure(&b, "prefault", g4_run_prefault, trials);
    free(b.pixels);
    free(b.samples);
    g4_image_free(&b.image, NULL);
    g4_audio_free(&b.sound, NULL);
    g4_session_close(b.s);
    g4_engine_close(b.e);
    return 0;
}
