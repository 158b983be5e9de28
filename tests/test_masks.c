/* test_masks.c - generation under masks that allow few tokens computes few rows of the vocabulary head and skips what
 * nobody reads, and the text and everything behind it is the same as when all of it is computed, which asking for
 * log-probabilities enforces. */
#include "chat/chat.h"

#include <stdlib.h>
#include <string.h>

#include "heard.h"
#include "test.h"

enum { REPLY = 90, PROMPT = 40 };

typedef struct { /* allows, by turns that depend on what was chosen, one, few, many or all tokens */
    uint32_t state;
    int masks, all, end_at; /* calls; those that allowed everything; call that allows nothing */
} g4_turns;

static uint32_t g4_turns_next(uint32_t *x) { return *x = *x * 1664525u + 1013904223u, *x >> 8; }

static int g4_turns_mask(void *user, uint32_t *mask, int n_vocab)
{
    g4_turns *t = user;
    uint32_t x = t->state;
    if (++t->masks == t->end_at) return 1;
    const uint32_t kind = g4_turns_next(&x) % 8;
    if (kind == 0) {
        t->all++;
        return 0;
    }
    memset(mask, 0, ((size_t)n_vocab / 32 + 1) * sizeof *mask);
    const uint32_t n = kind < 5 ? 1 : kind < 7 ? 7 : (uint32_t)n_vocab / 3;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t id = i == 1 ? (uint32_t)n_vocab - 1 : g4_turns_next(&x) % (uint32_t)n_vocab;
        mask[id / 32] |= 1u << (id % 32);
    }
    return 0;
}

static void g4_turns_accept(void *user, g4_token token)
{
    g4_turns *t = user;
    t->state += 977u * (uint32_t)token + 1u;
    g4_turns_next(&t->state);
    if (t->masks % 3 == 0) t->state %= 5; /* come back to the same places, so that guesses hold */
}

/* ways: 0 everything computed, 1 few rows, 2 few rows and guesses, 3 and chunks of three tokens */
static void g4_compare(const char *path, const g4_sampling *sampling, int stop_at, int end_at)
{
    enum { WAYS = 4 };
    g4_engine *e = NULL;
    g4_error err = { 0 };
    g4_heard heard[WAYS];
    g4_engine_info info = { 0 };
    float *logits[WAYS] = { NULL };
    uint64_t rows[WAYS] = { 0 }, evaluated[WAYS] = { 0 };
    g4_result result[WAYS];
    memset(heard, 0, sizeof heard);
    memset(result, 0, sizeof result);
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = path, .n_threads = 2 }, &err)) {
        G4_EXPECT(0, "%s: %s", path, err.message);
        return;
    }
    g4_engine_get_info(e, &info);
    g4_token prompt[PROMPT];
    for (int i = 0; i < PROMPT; i++) prompt[i] = (g4_token)((i % 7 * 37 + 11) % info.n_vocab);
    g4_turns turns = { 0 };
    for (int way = 0; way < WAYS; way++) {
        g4_session *s = NULL, *fork = NULL;
        turns = (g4_turns) { .end_at = end_at };
        const g4_constraint constraint = { .mask = g4_turns_mask, .accept = g4_turns_accept, .user = &turns };
        heard[way].stop_at = stop_at;
        const g4_generate_options opt = { .sampling = sampling,
                                          .max_tokens = REPLY,
                                          .no_guard = 1,
                                          .ignore_stop_ids = 1,
                                          .want_logprobs = way == 0,
                                          .no_lookup = way < 2,
                                          .constraint = &constraint,
                                          .output = g4_hear,
                                          .user = &heard[way] };
        const g4_session_options so = { .n_ctx = PROMPT + REPLY + 8, .chunk = way == 3 ? 3 : 0 };
        int bad = g4_session_open(&s, e, &so, &err) || g4_session_eval(s, prompt, PROMPT, &err);
        const uint64_t before = bad ? 0 : s->n_head_rows;
        bad = bad || g4_session_generate(s, &opt, &result[way], &err);
        if (!bad) rows[way] = s->n_head_rows - before;
        bad = bad || g4_session_fork(&fork, s, &err);
        G4_EXPECT(!bad, "%s: %s", path, err.message);
        logits[way] = bad ? NULL : malloc(2 * (size_t)info.n_vocab * sizeof **logits);
        if (logits[way]) {
            memcpy(logits[way], g4_session_logits(way % 2 ? fork : s), (size_t)info.n_vocab * sizeof **logits);
            G4_EXPECT(g4_session_eval(s, prompt, 3, &err) == G4_OK, "%s", err.message);
            memcpy(logits[way] + info.n_vocab, g4_session_logits(s), (size_t)info.n_vocab * sizeof **logits);
            evaluated[way] = g4_session_n_evaluated(s);
        }
        g4_session_close(fork);
        g4_session_close(s);
        if (way == 0) continue;
        G4_EXPECT(heard[way].n == heard[0].n && !memcmp(heard[way].tokens, heard[0].tokens, sizeof heard[0].tokens),
                  "%s: way %d changed the reply (%d and %d tokens)", path, way, heard[way].n, heard[0].n);
        G4_EXPECT(result[way].n_tokens == result[0].n_tokens && result[way].stop == result[0].stop,
                  "%s: way %d: %d tokens, %s", path, way, result[way].n_tokens, g4_stop_name(result[way].stop));
        G4_EXPECT(evaluated[way] == evaluated[0], "%s: way %d: %d and %d tokens evaluated", path, way,
                  (int)evaluated[way], (int)evaluated[0]);
        if (logits[way] && logits[0])
            G4_EXPECT(!memcmp(logits[way], logits[0], 2 * (size_t)info.n_vocab * sizeof **logits),
                      "%s: way %d changed what follows", path, way);
    }
    /* all rows where everything was allowed, at most 7 groups for 7 tokens, none for one */
    if (heard[0].n > 20)
        G4_EXPECT(rows[1] < rows[0] / 4 * 3, "%s: %d of %d head rows", path, (int)rows[1], (int)rows[0]);
    for (int way = 0; way < WAYS; way++) free(logits[way]);
    g4_engine_close(e);
}

/* A mask of one token: no head row at all. */
static int g4_one_mask(void *user, uint32_t *mask, int n_vocab)
{
    memset(mask, 0, ((size_t)n_vocab / 32 + 1) * sizeof *mask);
    mask[0] = 1u << 7;
    (void)user;
    return 0;
}

static void g4_forced(const char *path)
{
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_error err = { 0 };
    g4_result result;
    const g4_token prompt[3] = { 2, 5, 9 };
    const g4_constraint constraint = { .mask = g4_one_mask };
    const g4_generate_options opt = {
        .max_tokens = 50, .no_guard = 1, .ignore_stop_ids = 1, .constraint = &constraint
    };
    const int bad = g4_engine_open(&e, &(g4_engine_options) { .model_path = path, .n_threads = 2 }, &err) ||
                    g4_session_open(&s, e, NULL, &err) || g4_session_eval(s, prompt, 3, &err);
    G4_EXPECT(!bad, "%s: %s", path, err.message);
    if (!bad) {
        const uint64_t before = s->n_head_rows;
        G4_EXPECT(g4_session_generate(s, &opt, &result, &err) == G4_OK && result.n_tokens == 50, "%s", err.message);
        G4_EXPECT(g4_session_n(s) == 53 && s->n_head_rows == before, "%s: %d head rows", path,
                  (int)(s->n_head_rows - before));
    }
    g4_session_close(s);
    g4_engine_close(e);
}

int main(void)
{
    static const char *const paths[] = { "models/tiny.g4",
                                         "tests/data/text_e2b.g4",
                                         "tests/data/text_e2b.q4_0.g4",
                                         "tests/data/text_e2b.bf16.g4",
                                         "tests/data/text_26b.q8_0.g4",
                                         "tests/data/text_31b.g4",
                                         "tests/data/text_gemma3.g4" };
    const g4_logit_bias bias[] = { { 11, 3.0f }, { 48, -3.0f } };
    const g4_sampling ways[] = {
        { .temperature = 0 },
        { .temperature = 0.8f, .top_k = 5, .seed = 7 },
        { .temperature = 1, .top_p = 0.9f, .min_p = 0.01f, .seed = 3 },
        { .temperature = 1, .seed = 5, .bias = bias, .n_bias = 2, .repeat_penalty = 1.2f, .presence_penalty = 0.3f },
    };
    for (size_t p = 0; p < sizeof paths / sizeof *paths; p++) {
        for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
            g4_compare(paths[p], &ways[w], 0, 0);
            g4_compare(paths[p], &ways[w], 1 + (int)(p * 4 + w), 0); /* ended by the caller ... */
            g4_compare(paths[p], &ways[w], 0, 2 + (int)(p * 4 + w)); /* ... and by the constraint */
        }
        g4_forced(paths[p]);
    }
    return g4_test_end();
}
