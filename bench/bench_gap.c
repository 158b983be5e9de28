/* The longest pause between two tokens of an answer while another session's prompt, and then its picture, arrives. With
 * one thread CPU seconds of the process are counted: what a core of its own would take.
 * usage: bench_gap MODEL.g4 [PICTURE.png [ANSWERS [PROMPT_TOKENS [PROMPT_ROWS [THREADS [TRIALS]]]]]] */
#define _GNU_SOURCE 1 /* clock_gettime under -std=c11 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gemma4.h"

enum { MAX_ANSWERS = 16, BEFORE = 128, CONTEXT = 4096, PLAIN = 12 };

typedef struct {
    double last, longest; /* seconds: when the last token came; the longest pause since `watched` was set */
    int watched, n;
} g4_listener;

static clockid_t g4_clock = CLOCK_MONOTONIC;

static double g4_now(void)
{
    struct timespec t;
    clock_gettime(g4_clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int g4_listen(void *user, const g4_output *out)
{
    g4_listener *l = user;
    const double now = g4_now();
    (void)out;
    if (l->watched && now - l->last > l->longest) l->longest = now - l->last;
    l->last = now;
    l->n++;
    return 0;
}

static void g4_done(void *user, g4_session *s, g4_status status, const g4_result *result, const g4_error *err)
{
    (void)s, (void)result;
    if (status && status != G4_ERR_CANCELED) fprintf(stderr, "%s\n", err->message);
    ++*(int *)user;
}

static void g4_responded(void *user, g4_session *s, g4_status status, g4_response *response, const g4_result *result,
                         const g4_error *err)
{
    g4_response_close(response);
    g4_done(user, s, status, result, err);
}

static void g4_watch(g4_listener *l, int n)
{
    for (int i = 0; i < n; i++) l[i].longest = 0, l[i].watched = 1;
}

static double g4_longest(const g4_listener *l, int n)
{
    double longest = 0;
    for (int i = 0; i < n; i++)
        if (l[i].longest > longest) longest = l[i].longest;
    return longest;
}

static int g4_compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of some steps in which all answer and nobody reads. */
static double g4_plain_step(g4_batch *b)
{
    double seconds[PLAIN];
    for (int i = 0; i < PLAIN; i++) {
        const double start = g4_now();
        g4_batch_step(b, NULL);
        seconds[i] = g4_now() - start;
    }
    qsort(seconds, PLAIN, sizeof *seconds, g4_compare);
    return seconds[PLAIN / 2];
}

static void g4_tell(const char *what, int trial, double plain, double gap, double arrived)
{
    printf("%s %d: plain step %.0f ms, longest gap %.0f ms = %.2f steps, in after %.2f s\n", what, trial + 1,
           1e3 * plain, 1e3 * gap, gap / plain, arrived);
    fflush(stdout);
}

/* Step until `done` is set, then take the session out of the timeline it has. */
static double g4_until(g4_batch *b, const int *done, double start)
{
    while (!*done && !g4_batch_step(b, NULL)) {
    }
    return g4_now() - start;
}

static void g4_try_prompt(g4_batch *b, g4_session *s, const g4_token *ids, int n, g4_listener *l, int n_answers,
                          int trial)
{
    int done = 0;
    const double plain = g4_plain_step(b);
    const g4_prompt prompt = { .tokens = ids, .n = n };
    const g4_generate_options one = { .max_tokens = 1, .ignore_stop_ids = 1 };
    const g4_batch_request request = { .prompt = &prompt, .generate = &one, .done = g4_done, .user = &done };
    g4_session_rewind(s, 0, NULL);
    g4_watch(l, n_answers);
    const double start = g4_now();
    g4_batch_add(b, s, &request, NULL);
    const double arrived = g4_until(b, &done, start);
    g4_tell("prompt", trial, plain, g4_longest(l, n_answers), arrived);
}

static void g4_try_picture(g4_engine *e, g4_batch *b, g4_session *s, g4_image *image, g4_listener *l, int n_answers,
                           int trial)
{
    static const char ask[] = "[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"path\":\"x\"},"
                              "{\"type\":\"text\",\"text\":\"?\"}]}]";
    int done = 0;
    g4_chat *c = NULL;
    g4_error err = { 0 };
    const double plain = g4_plain_step(b);
    const g4_generate_options one = { .max_tokens = 1, .ignore_stop_ids = 1 };
    const g4_respond_options respond = { .generate = &one };
    const g4_batch_respond_request request = { .respond = &respond, .done = g4_responded, .user = &done };
    uint8_t *pixels = malloc(3 * (size_t)image->width * (size_t)image->height);
    g4_image other = *image;
    if (!pixels) return;
    memcpy(pixels, image->pixels, 3 * (size_t)image->width * (size_t)image->height);
    pixels[0] = (uint8_t)(pixels[0] + 1 + trial); /* not one that is remembered */
    other.pixels = pixels;
    g4_watch(l, n_answers);
    const double start = g4_now();
    const g4_chat_options template = { .template_name = "e2b-2026-07" }; /* also where the file has none */
    if (g4_chat_parse(&c, e, ask, strlen(ask), &template, &err) || g4_chat_set_image(c, 0, &other, &err) ||
        g4_batch_respond(b, s, c, &request, &err)) {
        fprintf(stderr, "%s\n", err.message);
    } else {
        const double arrived = g4_until(b, &done, start);
        g4_tell("picture", trial, plain, g4_longest(l, n_answers), arrived);
    }
    g4_chat_close(c);
    free(pixels);
}

int main(int argc, char **argv)
{
    static g4_token ids[CONTEXT];
    static g4_listener listeners[MAX_ANSWERS];
    g4_session *s[MAX_ANSWERS + 1] = { NULL };
    g4_engine *e = NULL;
    g4_batch *b = NULL;
    g4_image image = { 0 };
    g4_error err = { 0 };
    g4_engine_info info;
    const int n = argc > 3 ? atoi(argv[3]) : 4, length = argc > 4 ? atoi(argv[4]) : 512;
    const int trials = argc > 7 ? atoi(argv[7]) : 3;
    int ended = 0;
    if (argc < 2 || n < 1 || n > MAX_ANSWERS || length < 1 || length > CONTEXT / 2) {
        fprintf(stderr,
                "usage: bench_gap MODEL.g4 [PICTURE [ANSWERS [PROMPT_TOKENS [PROMPT_ROWS [THREADS [TRIALS]]]]]]\n");
        return 2;
    }
    const g4_engine_options opt = { .model_path = argv[1], .n_threads = argc > 6 ? atoi(argv[6]) : 0 };
    if (opt.n_threads == 1) g4_clock = CLOCK_PROCESS_CPUTIME_ID;
    const g4_batch_options rows = { .prompt_rows = argc > 5 ? atoi(argv[5]) : 0 };
    const g4_session_options setup = { .n_ctx = CONTEXT };
    int failed = g4_engine_open(&e, &opt, &err) || g4_batch_open(&b, e, &rows, &err);
    for (int i = 0; !failed && i <= n; i++) failed = g4_session_open(&s[i], e, &setup, &err);
    if (!failed && argc > 2) failed = g4_image_load(&image, argv[2], NULL, &err);
    if (failed) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    g4_engine_get_info(e, &info);
    g4_engine_prefault(e, NULL, NULL, NULL);
    for (int i = 0; i < CONTEXT; i++)
        ids[i] = (g4_token)(((uint64_t)i * 2654435761u + 12345u) % (uint64_t)info.n_vocab);
    const g4_sampling greedy = { 0 };
    g4_generate_options answer[MAX_ANSWERS];
    for (int i = 0; i < n; i++) {
        const g4_prompt prompt = { .tokens = ids + i, .n = BEFORE };
        answer[i] = (g4_generate_options) { .sampling = &greedy,
                                            .max_tokens = CONTEXT / 2,
                                            .no_guard = 1,
                                            .ignore_stop_ids = 1,
                                            .no_lookup = 1,
                                            .output = g4_listen,
                                            .user = &listeners[i] };
        const g4_batch_request request = { .prompt = &prompt, .generate = &answer[i], .done = g4_done, .user = &ended };
        if (g4_batch_add(b, s[i], &request, &err)) fprintf(stderr, "%s\n", err.message);
    }
    for (int i = 0; i < n; i++)
        while (listeners[i].n == 0 && !g4_batch_step(b, NULL)) {
        }
    printf("%s, %s, %d threads, %d answers\n", info.name, info.isa, info.n_threads, n);
    for (int i = 0; i < trials; i++) g4_try_prompt(b, s[n], ids + 100, length, listeners, n, i);
    for (int i = 0; i < trials && argc > 2; i++) g4_try_picture(e, b, s[n], &image, listeners, n, i);
    g4_batch_close(b);
    for (int i = 0; i <= n; i++) g4_session_close(s[i]);
    if (argc > 2) g4_image_free(&image, NULL);
    g4_engine_close(e);
    return 0;
}
