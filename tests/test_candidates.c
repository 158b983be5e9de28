/* test_candidates.c - choosing among the few tokens that can be among the best k chooses what a look at all softcapped
 * logits chooses: greedy and sampled, with logits far inside the softcap, bent by it, and rounded to the same value. */
#include "gemma4.h"
#include "chat/chat.h"

#include <stdlib.h>
#include <string.h>

#include "heard.h"
#include "test.h"

enum { REPLY = 100, PROMPT = 20 };

/* The reply and the logits behind it. Asking for log-probabilities needs all softcapped logits. */
static void g4_reply_of(g4_engine *e, const g4_sampling *sampling, int all, int fork, g4_heard *heard, float *logits)
{
    g4_error err = { 0 };
    g4_session *s = NULL, *other = NULL;
    const int n_vocab = (int)g4_engine_config(e)->n_vocab;
    g4_token prompt[PROMPT];
    for (int i = 0; i < PROMPT; i++) prompt[i] = (g4_token)((i * 37 + 11) % n_vocab);
    const g4_generate_options opt = { .sampling = sampling,
                                      .max_tokens = REPLY,
                                      .no_guard = 1,
                                      .ignore_stop_ids = 1,
                                      .no_lookup = 1,
                                      .want_logprobs = all,
                                      .output = g4_hear,
                                      .user = heard };
    int bad = g4_session_open(&s, e, &(g4_session_options) { .n_ctx = PROMPT + REPLY + 8 }, &err) ||
              g4_session_eval(s, prompt, PROMPT, &err);
    if (!bad && fork) bad = g4_session_fork(&other, s, &err) != G4_OK; /* takes over logits that nobody has read yet */
    bad = bad || g4_session_generate(fork ? other : s, &opt, NULL, &err);
    G4_EXPECT(!bad, "%s", err.message);
    if (!bad) memcpy(logits, g4_session_logits(fork ? other : s), (size_t)n_vocab * sizeof *logits);
    g4_session_close(other);
    g4_session_close(s);
}

static void g4_compare(const char *path, float cap)
{
    static const g4_sampling ways[] = {
        { .temperature = 0 },
        { .temperature = 1, .top_k = 5, .seed = 7 },
        { .temperature = 2, .top_k = 40, .top_p = 0.9f, .seed = 3 },
        { .temperature = 1, .top_k = 300, .min_p = 0.01f, .seed = 4 }, /* more than the shortcut is for */
    };
    g4_engine *e = NULL;
    g4_error err = { 0 };
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = path, .n_threads = 2 }, &err)) {
        G4_EXPECT(0, "%s: %s", path, err.message);
        return;
    }
    if (cap >= 0) ((g4_config *)(uintptr_t)g4_engine_config(e))->softcap = cap;
    const size_t n_vocab = g4_engine_config(e)->n_vocab;
    float *logits = calloc(2 * n_vocab, sizeof *logits);
    for (size_t w = 0; logits && w < sizeof ways / sizeof *ways; w++) {
        g4_heard heard[2];
        memset(heard, 0, sizeof heard);
        g4_reply_of(e, &ways[w], 1, 0, &heard[0], logits);
        g4_reply_of(e, &ways[w], 0, (int)w % 2, &heard[1], logits + n_vocab);
        G4_EXPECT(heard[0].n == REPLY && heard[1].n == REPLY &&
                      !memcmp(heard[0].tokens, heard[1].tokens, sizeof heard[0].tokens),
                  "%s, softcap %g, way %d: another reply (%d and %d tokens)", path, (double)cap, (int)w, heard[0].n,
                  heard[1].n);
        G4_EXPECT(!memcmp(logits + n_vocab, logits, n_vocab * sizeof *logits), "%s, softcap %g, way %d: other logits",
                  path, (double)cap, (int)w);
    }
    free(logits);
    g4_engine_close(e);
}

int main(void)
{
    static const char *const paths[] = { "tests/data/text_e2b.g4", "tests/data/text_31b.g4",
                                         "tests/data/text_gemma3.g4" };
    static const float caps[] = { -1, 0, 0.001f, 0.5f, 3, 1e6f }; /* -1: the model's own */
    for (size_t p = 0; p < sizeof paths / sizeof *paths; p++)
        for (size_t c = 0; c < sizeof caps / sizeof *caps; c++) g4_compare(paths[p], caps[c]);
    return g4_test_end();
}
