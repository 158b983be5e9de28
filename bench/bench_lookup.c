/* bench_lookup MODEL.g4 [THREADS [TOKENS]] - what prompt lookup gains: answers that repeat parts of their prompt, with
 * and without guesses, by turns in one run.
 *
 * The prompts are texts to go on with, as a base model reads them; they were written for this file. "right" is the
 * share of guesses that held. It brings the library with it, for that is counted inside. */
#define _GNU_SOURCE 1 /* clock_gettime under -std=c11 */
#define GEMMA4_IMPLEMENTATION
#include "../gemma4.h"

#include <stdio.h>

static double g4_cpu(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define G4_CODE                                                                                                        \
    "def average_speed(points):\n    \"\"\"Mean speed over (time, distance) points.\"\"\"\n    total = 0.0\n"          \
    "    count = 0\n    for i in range(1, len(points)):\n        time_before, distance_before = points[i - 1]\n"       \
    "        time_now, distance_now = points[i]\n        if time_now == time_before:\n            continue\n"          \
    "        total += (distance_now - distance_before) / (time_now - time_before)\n        count += 1\n"               \
    "    if count == 0:\n        return 0.0\n    return total / count\n"
#define G4_STORY                                                                                                       \
    "The harbour of Ostby freezes for about ten weeks every winter. Until 1962 the ferry stopped running then, and "   \
    "people crossed the ice on foot or with sledges, along a path marked with young birch trees. In that year the "    \
    "town bought an old icebreaker, which keeps a channel open between the pier and the island. The channel made the " \
    "winter path dangerous, and in 1964 it was closed for good. Fishermen still mark their nets with birch branches, " \
    "and every February the school walks a part of the old path, guided by the crew of the icebreaker.\n"

static const struct {
    const char *name, *prompt;
} g4_prompts[] = {
    { "code: rename", "# Original version:\n\n" G4_CODE "\n# The same function, with the variable `total` renamed to "
                      "`speed_sum`:\n\n" },
    { "code: add type hints", "# Original version:\n\n" G4_CODE "\n# The same function, with type hints:\n\n" },
    { "text: repeat", G4_STORY "\nThe same text once more:\n\n" },
    { "text: summarise", G4_STORY "\nSummary of the text above in two sentences:\n\n" },
    { "text: go on", "My favourite season is" },
};

typedef struct {
    double seconds, cpu;
    int n;
    uint64_t guessed, held;
} g4_figures;
typedef struct {
    g4_token tokens[1024];
    int n;
} g4_heard;

static int g4_hear(void *user, const g4_output *out)
{
    g4_heard *h = user;
    if (out->token >= 0 && h->n < 1024) h->tokens[h->n++] = out->token;
    return 0;
}

int main(int argc, char **argv)
{
    enum { ROUNDS = 3 };
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_error err = { 0 };
    if (argc < 2) {
        fprintf(stderr, "usage: bench_lookup MODEL.g4 [THREADS [TOKENS]]\n");
        return 2;
    }
    const int most = argc > 3 ? g4_min_int(atoi(argv[3]), 1024) : 160;
    const g4_engine_options eo = { .model_path = argv[1], .n_threads = argc > 2 ? atoi(argv[2]) : 0 };
    int same = 1;
    if (g4_engine_open(&e, &eo, &err) || g4_session_open(&s, e, &(g4_session_options) { .n_ctx = 2048 }, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    printf("%-22s %4s %6s | %10s %10s %6s | %10s %10s %6s | %7s %6s\n", "prompt", "temp", "tokens", "tok/s with",
           "without", "ratio", "CPU s with", "without", "ratio", "guesses", "right");
    for (size_t i = 0; i < sizeof g4_prompts / sizeof *g4_prompts; i++)
        for (int hot = 0; hot < 2; hot++) {
            g4_figures best[2] = { { 0 } };
            for (int turn = 0; turn < 2 * ROUNDS; turn++) { /* the best of three each: others may use the machine */
                static g4_heard heard[2];
                const int off = turn % 2;
                const g4_sampling sampling = { .temperature = hot ? 0.7f : 0, .top_k = 64, .top_p = 0.95f, .seed = 1 };
                heard[off].n = 0;
                const g4_generate_options go = { .sampling = &sampling,
                                                 .max_tokens = most,
                                                 .no_guard = 1,
                                                 .no_lookup = off,
                                                 .output = g4_hear,
                                                 .user = &heard[off] };
                g4_result result;
                if (g4_session_rewind(s, 0, &err) || g4_session_eval_text(s, g4_prompts[i].prompt, 0, &err)) break;
                const uint64_t guessed = s->n_guessed, held = s->n_held;
                const double cpu = g4_cpu();
                if (g4_session_generate(s, &go, &result, &err)) break;
                const g4_figures f = { result.seconds, g4_cpu() - cpu, result.n_tokens, s->n_guessed - guessed,
                                       s->n_held - held };
                if (turn < 2 || f.seconds < best[off].seconds) best[off] = f;
                if (off)
                    same = same && heard[0].n == heard[1].n &&
                           !memcmp(heard[0].tokens, heard[1].tokens, (size_t)heard[0].n * sizeof(g4_token));
            }
            const g4_figures *on = &best[0], *off = &best[1];
            printf("%-22s %4.1f %6d | %10.1f %10.1f %6.2f | %10.2f %10.2f %6.2f | %7d %5.0f%%\n", g4_prompts[i].name,
                   hot ? 0.7 : 0.0, on->n, on->n / on->seconds, off->n / off->seconds, off->seconds / on->seconds,
                   on->cpu, off->cpu, off->cpu / on->cpu, (int)on->guessed,
                   on->guessed ? 100.0 * (double)on->held / (double)on->guessed : 0.0);
            fflush(stdout);
        }
    if (err.message[0]) printf("%s\n", err.message);
    printf("%s\n", same ? "the texts are the same" : "THE TEXTS DIFFER");
    g4_session_close(s);
    g4_engine_close(e);
    return !same;
}
