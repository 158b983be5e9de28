/* bench_masks MODEL.g4 [THREADS [TEXTS]] - what an answer under a JSON schema costs for each token: computing only what
 * its masks leave open, beside computing every row of the vocabulary head for every token, by turns in one run.
 *
 * The second is had by asking for log-probabilities, whose own cost (a pass over the vocabulary) is in its time.
 * Seconds are those of the processor, of all threads together, and of the clock. */
#define _GNU_SOURCE 1 /* clock_gettime under -std=c11 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "chat/chat.h"

enum { PROMPT = 64, MOST = 400 };

static double g4_now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct {
    g4_grammar *grammar;
    int32_t state;
} g4_writing;

static int g4_writing_mask(void *user, uint32_t *mask, int n_vocab)
{
    g4_writing *w = user;
    w->state = g4_grammar_settle(w->grammar, w->state);
    const uint32_t *m =
        w->state > 0 && !g4_grammar_accepts(w->grammar, w->state) ? g4_grammar_mask(w->grammar, w->state) : NULL;
    if (m == NULL) return 1;
    memcpy(mask, m, ((size_t)n_vocab + 31) / 32 * sizeof *mask);
    return 0;
}

static void g4_writing_accept(void *user, g4_token token)
{
    g4_writing *w = user;
    w->state = g4_grammar_read(w->grammar, w->state, token);
}

typedef struct {
    g4_token tokens[MOST];
    int n;
} g4_written;

static int g4_text_take(void *user, const g4_output *out)
{
    g4_written *t = user;
    if (out->token >= 0 && t->n < MOST) t->tokens[t->n++] = out->token;
    return 0;
}

typedef struct {
    double cpu, wall;
    long tokens, rows;
} g4_cost;

int main(int argc, char **argv)
{
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"first_name_of_person\":{\"enum\":[\"Anna\",\"Bert\",\"Clara\",\"Dora\"]"
        "},"
        "\"age_in_years\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":150},\"country_of_residence\":{\"enum\":["
        "\"France\",\"Germany\",\"Italy\"]},\"is_active_member\":{\"type\":\"boolean\"},\"scores\":{\"type\":\"array\","
        "\"items\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":99},\"minItems\":3,\"maxItems\":3}},\"required\":["
        "\"first_name_of_person\",\"age_in_years\",\"country_of_residence\",\"is_active_member\",\"scores\"],"
        "\"additionalProperties\":false}";
    static const char *const names[] = { "every row", "what is left open" };
    const int texts = argc > 3 ? atoi(argv[3]) : 4;
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_writing w = { 0 };
    g4_error err = { 0 };
    g4_cost cost[2] = { { 0 } };
    int same = 1;
    if (argc < 2) {
        fprintf(stderr, "usage: bench_masks MODEL.g4 [THREADS [TEXTS]]\n");
        return 2;
    }
    const g4_engine_options eo = { .model_path = argv[1], .n_threads = argc > 2 ? atoi(argv[2]) : 0 };
    if (g4_engine_open(&e, &eo, &err) ||
        g4_session_open(&s, e, &(g4_session_options) { .n_ctx = PROMPT + MOST }, &err) ||
        g4_grammar_from_schema(&w.grammar, e, schema, 0, NULL, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    g4_token prompt[PROMPT];
    for (int i = 0; i < PROMPT; i++) prompt[i] = 300 + 7 * i;
    for (int i = -1; i < texts; i++) { /* the first is not counted: it fills the caches of the masks and of files */
        g4_written text[2];
        memset(text, 0, sizeof text);
        for (int way = 0; way < 2; way++) {
            const g4_sampling sampling = { .temperature = 1, .seed = (uint64_t)(i + 1) };
            const g4_constraint constraint = { .mask = g4_writing_mask, .accept = g4_writing_accept, .user = &w };
            const g4_generate_options go = { .sampling = &sampling,
                                             .max_tokens = MOST,
                                             .no_guard = 1,
                                             .ignore_stop_ids = 1,
                                             .no_lookup = 1,
                                             .want_logprobs = way == 0,
                                             .constraint = &constraint,
                                             .output = g4_text_take,
                                             .user = &text[way] };
            w.state = g4_grammar_start(w.grammar);
            if (g4_session_rewind(s, 0, &err) || g4_session_eval(s, prompt, PROMPT, &err)) break;
            const uint64_t rows = s->n_head_rows;
            const double cpu = g4_now(CLOCK_PROCESS_CPUTIME_ID), wall = g4_now(CLOCK_MONOTONIC);
            if (g4_session_generate(s, &go, NULL, &err)) break;
            if (i < 0) continue;
            cost[way].cpu += g4_now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
            cost[way].wall += g4_now(CLOCK_MONOTONIC) - wall;
            cost[way].rows += (long)(s->n_head_rows - rows);
            cost[way].tokens += text[way].n;
        }
        same = same && text[0].n == text[1].n && !memcmp(text[0].tokens, text[1].tokens, sizeof text[0].tokens);
    }
    printf("%-18s %8s %12s %12s %16s\n", "computed", "tokens", "ms/token", "CPU ms/token", "head rows/token");
    for (int way = 0; way < 2 && cost[way].tokens > 0; way++)
        printf("%-18s %8ld %12.2f %12.2f %16.0f\n", names[way], cost[way].tokens,
               1e3 * cost[way].wall / (double)cost[way].tokens, 1e3 * cost[way].cpu / (double)cost[way].tokens,
               (double)cost[way].rows / (double)cost[way].tokens);
    if (err.message[0]) printf("%s\n", err.message);
    printf("%s\n", same ? "the texts are the same" : "THE TEXTS DIFFER");
    g4_grammar_close(w.grammar);
    g4_session_close(s);
    g4_engine_close(e);
    return !same;
}
