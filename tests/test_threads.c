/* Two engines and several sessions of each on threads of their own: no data race (make tsan runs this under the thread
 * sanitizer), and the text of every session is what it is alone. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "gemma4.h"
#include "test.h"

#define G4_MODEL "tests/data/text_e2b.g4"
enum { G4_ENGINES = 2, G4_SESSIONS = 3, G4_PROMPT = 40, G4_NEW = 24 };

typedef struct {
    g4_engine *engine;
    int seed;
    int n; /* tokens it ended with, -1 after a failure */
    g4_token tokens[1 + G4_PROMPT + G4_NEW];
    g4_error err;
} g4_job;

static void *g4_work(void *arg)
{
    g4_job *job = arg;
    g4_session *s = NULL, *copy = NULL;
    g4_session_options opt = { .n_ctx = 128 };
    g4_sampling sampling = { .temperature = 1.0f, .top_k = 20, .seed = (uint64_t)job->seed };
    g4_generate_options gen = { .sampling = &sampling, .max_tokens = G4_NEW / 2, .ignore_stop_ids = 1, .no_guard = 1 };
    g4_token prompt[1 + G4_PROMPT] = { 2 };
    job->n = -1;
    for (int i = 0; i < G4_PROMPT; i++) prompt[1 + i] = (g4_token)((job->seed * 7919 + i * 31) % 300 + 10);
    if (g4_session_open(&s, job->engine, &opt, &job->err) == G4_OK &&
        g4_session_eval(s, prompt, 1 + G4_PROMPT, &job->err) == G4_OK &&
        g4_session_generate(s, &gen, NULL, &job->err) == G4_OK && g4_session_fork(&copy, s, &job->err) == G4_OK &&
        g4_session_generate(copy, &gen, NULL, &job->err) == G4_OK) {
        job->n = g4_session_n(copy);
        memcpy(job->tokens, g4_session_tokens(copy), (size_t)job->n * sizeof(g4_token));
    }
    g4_session_close(copy);
    g4_session_close(s);
    return NULL;
}

int main(void)
{
    g4_engine *engines[G4_ENGINES] = { NULL };
    static g4_job alone[G4_ENGINES * G4_SESSIONS], together[G4_ENGINES * G4_SESSIONS];
    pthread_t threads[G4_ENGINES * G4_SESSIONS];
    g4_error err;
    for (int i = 0; i < G4_ENGINES; i++) {
        g4_engine_options opt = { .model_path = G4_MODEL, .n_threads = 2 };
        G4_EXPECT(g4_engine_open(&engines[i], &opt, &err) == G4_OK, "%s", err.message);
        if (engines[i] == NULL) return g4_test_end();
    }
    for (int i = 0; i < G4_ENGINES * G4_SESSIONS; i++) {
        alone[i].engine = together[i].engine = engines[i % G4_ENGINES];
        alone[i].seed = together[i].seed = i + 1;
        g4_work(&alone[i]);
        G4_EXPECT(alone[i].n == 1 + G4_PROMPT + G4_NEW, "session %d: %d tokens, %s", i, alone[i].n,
                  alone[i].err.message);
    }
    int started = 0;
    while (started < G4_ENGINES * G4_SESSIONS &&
           pthread_create(&threads[started], NULL, g4_work, &together[started]) == 0)
        started++;
    G4_EXPECT(started == G4_ENGINES * G4_SESSIONS, "only %d threads", started);
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
        G4_EXPECT(together[i].n == alone[i].n &&
                      memcmp(together[i].tokens, alone[i].tokens, sizeof alone[i].tokens) == 0,
                  "session %d: other tokens beside others than alone (%d, %d)", i, together[i].n, alone[i].n);
    }
    for (int i = 0; i < G4_ENGINES; i++) g4_engine_close(engines[i]);
    return g4_test_end();
}
