/* test_lookup.c - prompt-lookup drafting changes no token and no bit: greedy and sampled, with penalties, across the
 * sliding window, and in what follows the reply. */
#include "gemma4.h"

#include <stdlib.h>
#include <string.h>

#include "heard.h"
#include "test.h"

enum { REPLY = 120, PROMPT = 60 };

static void g4_compare(const char *path, const g4_sampling *sampling, int period, int stop_at)
{
    g4_engine *e = NULL;
    g4_error err = { 0 };
    g4_heard heard[2];
    g4_engine_info info = { 0 };
    float *logits[2] = { NULL, NULL };
    uint64_t evaluated[2] = { 0, 0 };
    memset(heard, 0, sizeof heard);
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = path, .n_threads = 2 }, &err)) {
        G4_EXPECT(0, "%s: %s", path, err.message);
        return;
    }
    g4_engine_get_info(e, &info);
    g4_token prompt[PROMPT];
    for (int i = 0; i < PROMPT; i++) prompt[i] = (g4_token)((i % period * 37 + 11) % info.n_vocab);
    for (int off = 0; off < 2; off++) {
        g4_session *s = NULL;
        heard[off].stop_at = stop_at;
        const g4_generate_options opt = { .sampling = sampling,
                                          .max_tokens = REPLY,
                                          .no_guard = 1,
                                          .ignore_stop_ids = 1,
                                          .no_lookup = off,
                                          .output = g4_hear,
                                          .user = &heard[off] };
        const int bad = g4_session_open(&s, e, &(g4_session_options) { .n_ctx = PROMPT + REPLY + 8 }, &err) ||
                        g4_session_eval(s, prompt, PROMPT, &err) || g4_session_generate(s, &opt, NULL, &err) ||
                        g4_session_eval(s, prompt, 3, &err); /* what comes behind reads the same keys */
        G4_EXPECT(!bad, "%s: %s", path, err.message);
        logits[off] = bad ? NULL : malloc((size_t)info.n_vocab * sizeof **logits);
        if (logits[off]) memcpy(logits[off], g4_session_logits(s), (size_t)info.n_vocab * sizeof **logits);
        evaluated[off] = bad ? 0 : g4_session_n_evaluated(s);
        g4_session_close(s);
    }
    G4_EXPECT(heard[0].n == heard[1].n && !memcmp(heard[0].tokens, heard[1].tokens, sizeof heard[0].tokens),
              "%s: drafts changed the reply (%d and %d tokens)", path, heard[0].n, heard[1].n);
    G4_EXPECT(evaluated[0] == evaluated[1], "%s: %d and %d tokens evaluated", path, (int)evaluated[0],
              (int)evaluated[1]);
    if (logits[0] && logits[1])
        G4_EXPECT(!memcmp(logits[0], logits[1], (size_t)info.n_vocab * sizeof **logits),
                  "%s: drafts changed what follows", path);
    free(logits[0]);
    free(logits[1]);
    g4_engine_close(e);
}

int main(void)
{
    static const char *const paths[] = { "tests/data/text_e2b.g4", "tests/data/text_e2b.q4_0.g4",
                                         "tests/data/text_26b.q8_0.g4", "tests/data/text_31b.g4",
                                         "tests/data/text_gemma3.g4" };
    const g4_logit_bias bias[] = { { 11, 6.0f },
                                   { 48, 6.0f },
                                   { 85, 6.0f } }; /* keeps the reply among a few tokens, so guesses hold */
    const g4_sampling ways[] = {
        { .temperature = 0 },
        { .temperature = 0, .bias = bias, .n_bias = 3 },
        { .temperature = 0.3f, .top_k = 5, .seed = 7, .bias = bias, .n_bias = 3 },
        { .temperature = 1, .top_p = 0.9f, .seed = 3, .repeat_penalty = 1.1f, .frequency_penalty = 0.1f },
    };
    for (size_t p = 0; p < sizeof paths / sizeof *paths; p++)
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            g4_compare(paths[p], &ways[w], 4, 0);
            g4_compare(paths[p], &ways[w], 13, 0);
            g4_compare(paths[p], &ways[w], 3, 1 + (int)(p * 4 + w)); /* stopped in the middle of a batch */
        }
    return g4_test_end();
}
