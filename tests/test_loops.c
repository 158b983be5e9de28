/* test_loops.c - loops of one's own: g4_session_choose and g4_session_eval write the tokens of g4_session_generate;
 * what logits say; kinds of tokens; the size of a saved session. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gemma4.h"
#include "chat/chat.h"
#include "test.h"

enum { REPLY = 60, PROMPT = 24, TOP = 4 };

typedef struct {
    g4_token tokens[REPLY + 1];
    float logprobs[REPLY + 1];
    g4_candidate top[REPLY + 1][TOP];
    int n;
    g4_token stop_token;
    g4_stop stop;
} g4_written;

static int g4_note_output(void *user, const g4_output *out)
{
    g4_written *w = user;
    if (out->token < 0 || w->n == REPLY) return 0;
    w->tokens[w->n] = out->token;
    if (out->n_top == TOP) {
        w->logprobs[w->n] = out->logprob;
        memcpy(w->top[w->n], out->top, sizeof w->top[0]);
    }
    w->n++;
    return 0;
}

/* ---- A constraint: all, one, some and half of the tokens in turn, and at last none ------------------------------- */

typedef struct {
    int steps, ends_at; /* tokens accepted; after which none is allowed, 0: never */
    uint64_t hash;
} g4_turns;

static int g4_turns_mask(void *user, uint32_t *mask, int n_vocab)
{
    const g4_turns *t = user;
    if (t->ends_at > 0 && t->steps == t->ends_at) return 1;
    for (int id = 0; id < n_vocab; id++) {
        const int allowed = t->steps % 4 == 0   ? 1
                            : t->steps % 4 == 1 ? id == (t->steps * 37 + 5) % n_vocab
                            : t->steps % 4 == 2 ? id % 19 == t->steps % 19
                                                : id % 2 == 0;
        if (!allowed) mask[id / 32] &= ~(1u << (id % 32));
    }
    return 0;
}

static void g4_turns_accept(void *user, g4_token token)
{
    g4_turns *t = user;
    t->steps++;
    t->hash = (t->hash ^ (uint64_t)token) * 0x9E3779B97F4A7C15u;
}

/* ---- Loops against g4_session_generate --------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    g4_sampling sampling;
    int stop_bias; /* 1: stop ids are likely */
    int ignore_stop_ids, constrained, ends_at, logprobs;
} g4_way;

static const g4_way g4_ways[] = {
    { .name = "greedy" },
    { .name = "greedy, lists", .logprobs = 1 },
    { .name = "sampled", .sampling = { .temperature = 1, .top_k = 40, .top_p = 0.95f, .seed = 3 } },
    { .name = "all tokens", .sampling = { .temperature = 1.5f, .seed = 4 } },
    { .name = "min-p", .sampling = { .temperature = 2, .top_k = 300, .min_p = 0.01f, .seed = 5 }, .logprobs = 1 },
    { .name = "repeat", .sampling = { .temperature = 0, .repeat_penalty = 1.3f } },
    { .name = "penalties",
      .sampling = { .temperature = 1,
                    .top_k = 64,
                    .repeat_penalty = 1.2f,
                    .presence_penalty = 0.5f,
                    .frequency_penalty = 0.25f,
                    .seed = 6 } },
    { .name = "frequency", .sampling = { .frequency_penalty = 1.5f, .presence_penalty = -1 } },
    { .name = "ends", .sampling = { .temperature = 1, .seed = 7 }, .stop_bias = 1 },
    { .name = "across ends", .sampling = { .temperature = 1, .seed = 7 }, .stop_bias = 1, .ignore_stop_ids = 1 },
    { .name = "constrained, greedy", .constrained = 1 },
    { .name = "constrained", .sampling = { .temperature = 1, .top_k = 20, .seed = 8 }, .constrained = 1 },
    { .name = "constrained, ends", .sampling = { .temperature = 1, .seed = 9 }, .constrained = 1, .ends_at = 11 },
    { .name = "constrained, all penalties",
      .sampling = { .temperature = 1, .repeat_penalty = 1.2f, .presence_penalty = 0.5f, .seed = 10 },
      .constrained = 1,
      .stop_bias = 1,
      .ignore_stop_ids = 1 },
    { .name = "constrained, lists", .constrained = 1, .logprobs = 1 },
};
enum { N_WAYS = sizeof g4_ways / sizeof *g4_ways };

static g4_status g4_write_loop(g4_engine *e, g4_session *s, const g4_way *way, const g4_choose_options *opt,
                               g4_written *w, g4_error *err)
{
    w->stop_token = -1;
    w->stop = G4_STOP_MAX_TOKENS;
    while (w->n < REPLY) {
        g4_token token, again;
        if (g4_session_n(s) == g4_session_n_ctx(s)) {
            w->stop = G4_STOP_CONTEXT;
            return G4_OK;
        }
        const float *logits = way->logprobs ? g4_session_logits(s) : NULL;
        if (logits && g4_logits_top(e, logits, TOP, w->top[w->n]) != TOP) return g4_fail(err, G4_ERR_FORMAT, "no list");
        g4_status status = g4_session_choose(s, opt, &token, err);
        if (status) return status;
        if (token < 0) {
            w->stop = G4_STOP_CONSTRAINT;
            return G4_OK;
        }
        if (logits) w->logprobs[w->n] = g4_logits_logprob(e, g4_session_logits(s), token);
        if (!way->constrained && w->n % 7 == 0) { /* a choice changes nothing */
            status = g4_session_choose(s, opt, &again, err);
            if (!status && again != token) status = g4_fail(err, G4_ERR_FORMAT, "another token, %d", (int)again);
            if (status) return status;
        }
        if (!way->ignore_stop_ids && g4_token_is_stop(e, token)) {
            w->stop = G4_STOP_END;
            w->stop_token = token;
            return G4_OK;
        }
        w->tokens[w->n++] = token;
        status = g4_session_eval(s, &token, 1, err);
        if (status) return status;
    }
    return G4_OK;
}

static int g4_ends[G4_STOP_CONSTRAINT + 1]; /* how often each end was compared */

/* One way on one model: both sessions start with the same prompt. Returns tokens compared. */
static int g4_compare_way(g4_engine *e, const char *path, const g4_way *way, int n_ctx)
{
    g4_error err = { 0 };
    g4_engine_info info;
    g4_session *a = NULL, *b = NULL;
    g4_token prompt[PROMPT];
    g4_logit_bias bias[8];
    g4_turns turns[2] = { { .ends_at = way->ends_at }, { .ends_at = way->ends_at } };
    g4_written *w = calloc(2, sizeof *w);
    g4_engine_get_info(e, &info);
    g4_sampling sampling = way->sampling;
    bias[sampling.n_bias++] = (g4_logit_bias) { 7, 2.5f };
    bias[sampling.n_bias++] = (g4_logit_bias) { info.n_vocab + 3, 1 }; /* is nobody's */
    for (g4_token id = 0; way->stop_bias && id < info.n_vocab && sampling.n_bias < 8; id++)
        if (g4_token_is_stop(e, id)) bias[sampling.n_bias++] = (g4_logit_bias) { id, 6 };
    sampling.bias = bias;
    if (!way->stop_bias) sampling.n_bias = 0;
    for (int i = 0; i < PROMPT; i++) prompt[i] = (g4_token)((i * 37 + 11) % info.n_vocab);
    const g4_session_options setup = { .n_ctx = n_ctx };
    int bad = !w || g4_session_open(&a, e, &setup, &err) || g4_session_open(&b, e, &setup, &err) ||
              g4_session_eval(a, prompt, PROMPT, &err) || g4_session_eval(b, prompt, PROMPT, &err);
    const g4_constraint constraint[2] = { { .mask = g4_turns_mask, .accept = g4_turns_accept, .user = &turns[0] },
                                          { .mask = g4_turns_mask, .accept = g4_turns_accept, .user = &turns[1] } };
    const g4_generate_options generate = { .sampling = &sampling,
                                           .max_tokens = REPLY,
                                           .no_guard = 1,
                                           .ignore_stop_ids = way->ignore_stop_ids,
                                           .want_logprobs = way->logprobs,
                                           .n_top = way->logprobs ? TOP : 0,
                                           .constraint = way->constrained ? &constraint[0] : NULL,
                                           .output = g4_note_output,
                                           .user = w };
    const g4_choose_options choose = { .sampling = &sampling,
                                       .constraint = way->constrained ? &constraint[1] : NULL,
                                       .reply_start = PROMPT };
    g4_result result = { 0 };
    bad = bad || g4_session_generate(a, &generate, &result, &err) || g4_write_loop(e, b, way, &choose, &w[1], &err);
    G4_EXPECT(!bad, "%s, %s: %s", path, way->name, err.message);
    const int n = bad ? 0 : w[1].n;
    if (!bad) {
        g4_ends[result.stop]++;
        G4_EXPECT(w[0].n == n && !memcmp(w[0].tokens, w[1].tokens, (size_t)n * sizeof(g4_token)),
                  "%s, %s: other tokens (%d and %d)", path, way->name, w[0].n, n);
        G4_EXPECT(result.stop == w[1].stop && result.stop_token == w[1].stop_token && result.n_tokens == n,
                  "%s, %s: ended by %s and %s, %d", path, way->name, g4_stop_name(result.stop), g4_stop_name(w[1].stop),
                  (int)w[1].stop_token);
        G4_EXPECT(!memcmp(w[0].logprobs, w[1].logprobs, (size_t)n * sizeof(float)) &&
                      (!way->logprobs || !memcmp(w[0].top, w[1].top, (size_t)n * sizeof w->top[0])),
                  "%s, %s: other log-probabilities", path, way->name);
        G4_EXPECT(turns[0].steps == turns[1].steps && turns[0].hash == turns[1].hash, "%s, %s: accepted %d and %d",
                  path, way->name, turns[0].steps, turns[1].steps);
        const float *la = g4_session_logits(a), *lb = g4_session_logits(b);
        G4_EXPECT(g4_session_n(a) == g4_session_n(b) && la && lb && !memcmp(la, lb, (size_t)info.n_vocab * sizeof *la),
                  "%s, %s: other logits at the end", path, way->name);
        /* Behind an answer of g4_session_generate, whose last logits nobody has read. */
        g4_token next[2] = { -2, -2 };
        if (!way->constrained && g4_session_n(a) < n_ctx) {
            G4_EXPECT(!g4_session_rewind(a, PROMPT, &err) && !g4_session_generate(a, &generate, &result, &err) &&
                          !g4_session_choose(a, &choose, &next[0], &err) &&
                          !g4_session_choose(b, &choose, &next[1], &err) && next[0] == next[1] && next[0] >= 0,
                      "%s, %s: goes on with %d and %d: %s", path, way->name, (int)next[0], (int)next[1], err.message);
        }
    }
    free(w);
    g4_session_close(b);
    g4_session_close(a);
    return n;
}

static void g4_compare_model(const char *path)
{
    g4_engine *e = NULL;
    g4_error err = { 0 };
    int n = 0;
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = path, .n_threads = 2 }, &err)) {
        G4_EXPECT(0, "%s: %s", path, err.message);
        return;
    }
    for (int i = 0; i < N_WAYS; i++) n += g4_compare_way(e, path, &g4_ways[i], PROMPT + REPLY + 8);
    n += g4_compare_way(e, path, &g4_ways[0], PROMPT + 10); /* the context ends first */
    printf("%s: %d tokens in %d ways\n", path, n, (int)N_WAYS + 1);
    g4_engine_close(e);
}

/* ---- What logits say --------------------------------------------------------------------------------------------- */

typedef struct {
    g4_engine *e;
    int n_vocab, rows;
    double worst; /* distance of the sum of all probabilities to 1 */
} g4_rows;

static int g4_on_row(void *user, int index, const float *logits)
{
    g4_rows *r = user;
    double sum = 0;
    for (g4_token id = 0; id < r->n_vocab; id += 1 + r->n_vocab / 2000)
        if (r->n_vocab <= 2000) sum += exp((double)g4_logits_logprob(r->e, logits, id));
    r->worst = fmax(r->worst, r->n_vocab <= 2000 ? fabs(sum - 1) : 0);
    r->rows = index + 1;
    return 0;
}

static void g4_test_logits(void)
{
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_error err = { 0 };
    g4_engine_info info;
    const g4_token ids[4] = { 2, 5, 7, 11 };
    const g4_prompt prompt = { .tokens = ids, .n = 4 };
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = "tests/data/text_e2b.g4" }, &err) ||
        g4_session_open(&s, e, NULL, &err)) {
        G4_EXPECT(0, "%s", err.message);
        return;
    }
    g4_engine_get_info(e, &info);
    g4_rows rows = { .e = e, .n_vocab = info.n_vocab };
    G4_EXPECT(!g4_session_eval_all(s, &prompt, g4_on_row, &rows, &err) && rows.rows == 4 && rows.worst < 1e-5,
              "probabilities sum to 1 +- %g: %s", rows.worst, err.message);
    float *logits = calloc((size_t)info.n_vocab, sizeof *logits);
    g4_candidate *top = calloc((size_t)info.n_vocab + 1, sizeof *top);
    if (logits && top) {
        logits[9] = logits[4] = 3;
        logits[2] = 1;
        G4_EXPECT(g4_logits_argmax(e, logits) == 4, "the lowest id of equals: %d", (int)g4_logits_argmax(e, logits));
        G4_EXPECT(g4_logits_top(e, logits, 4, top) == 4 && top[0].token == 4 && top[1].token == 9 &&
                      top[2].token == 2 && top[3].token == 0,
                  "%d %d %d %d", top[0].token, top[1].token, top[2].token, top[3].token);
        const double sum = log(2 * exp(3) + exp(1) + info.n_vocab - 3);
        G4_EXPECT(fabs((double)g4_logits_logprob(e, logits, 9) - (3 - sum)) < 1e-6 &&
                      top[1].logprob == g4_logits_logprob(e, logits, 9),
                  "%.9g, %.9g", (double)g4_logits_logprob(e, logits, 9), 3 - sum);
        G4_EXPECT(g4_logits_top(e, logits, info.n_vocab + 1, top) == info.n_vocab, "all there are");
        G4_EXPECT(g4_logits_logprob(e, logits, -1) == -INFINITY &&
                      g4_logits_logprob(e, logits, info.n_vocab) == -INFINITY,
                  "outside the vocabulary");
        G4_EXPECT(g4_logits_argmax(NULL, logits) == -1 && g4_logits_argmax(e, NULL) == -1 &&
                      g4_logits_logprob(NULL, logits, 0) == -INFINITY && g4_logits_logprob(e, NULL, 0) == -INFINITY &&
                      g4_logits_top(NULL, logits, 1, top) == 0 && g4_logits_top(e, NULL, 1, top) == 0 &&
                      g4_logits_top(e, logits, 1, NULL) == 0 && g4_logits_top(e, logits, -1, top) == 0,
                  "NULL");
    }
    free(top);
    free(logits);
    g4_session_close(s);
    g4_engine_close(e);
}

/* ---- Wrong arguments, ends --------------------------------------------------------------------------------------- */

typedef struct {
    g4_session *s;
    g4_status status; /* of a call from inside the call */
} g4_reentry;

static int g4_call_back(void *user, uint32_t *mask, int n_vocab)
{
    g4_reentry *r = user;
    g4_token token = -1;
    r->status = g4_session_choose(r->s, NULL, &token, NULL);
    mask[n_vocab / 32] |= 0; /* all tokens */
    return token >= 0;
}

static void g4_test_refusals(void)
{
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_error err = { 0 };
    g4_token token = 5, first = -1;
    const g4_token ids[4] = { 2, 5, 7, 11 };
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = "tests/data/text_e2b.g4" }, &err) ||
        g4_session_open(&s, e, NULL, &err)) {
        G4_EXPECT(0, "%s", err.message);
        return;
    }
    G4_EXPECT(g4_session_choose(NULL, NULL, &token, &err) == G4_ERR_ARGUMENT && token == -1, "%s", err.message);
    G4_EXPECT(g4_session_choose(s, NULL, NULL, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    G4_EXPECT(g4_session_choose(s, NULL, &token, &err) == G4_ERR_ARGUMENT && strstr(err.message, "empty"), "%s",
              err.message);
    G4_EXPECT(g4_session_eval(s, ids, 4, &err) == G4_OK && g4_session_choose(s, NULL, &first, &err) == G4_OK, "%s",
              err.message);
    const g4_sampling wrong[] = { { .temperature = -1 },
                                  { .temperature = NAN },
                                  { .top_p = 2 },
                                  { .top_k = -1 },
                                  { .n_bias = 1 },
                                  { .n_bias = -1 },
                                  { .repeat_penalty = -1 },
                                  { .repeat_penalty = INFINITY },
                                  { .bias = &(g4_logit_bias) { 5, NAN }, .n_bias = 1 } };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const g4_choose_options opt = { .sampling = &wrong[i] };
        const g4_generate_options generate = { .sampling = &wrong[i], .max_tokens = 1 };
        G4_EXPECT(g4_session_choose(s, &opt, &token, &err) == G4_ERR_ARGUMENT && token == -1, "%d: %s", (int)i,
                  err.message);
        G4_EXPECT(g4_session_generate(s, &generate, NULL, &err) == G4_ERR_ARGUMENT, "%d: %s", (int)i, err.message);
    }
    const g4_constraint empty = { 0 };
    g4_reentry reentry = { .s = s };
    const g4_constraint calls_back = { .mask = g4_call_back, .user = &reentry };
    G4_EXPECT(g4_session_choose(s, &(g4_choose_options) { .constraint = &empty }, &token, &err) == G4_ERR_ARGUMENT &&
                  g4_session_generate(s, &(g4_generate_options) { .constraint = &empty }, NULL, &err) ==
                      G4_ERR_ARGUMENT,
              "a constraint without a mask: %s", err.message);
    G4_EXPECT(g4_session_choose(s, &(g4_choose_options) { .reply_start = 5 }, &token, &err) == G4_ERR_ARGUMENT &&
                  g4_session_choose(s, &(g4_choose_options) { .reply_start = -1 }, &token, &err) == G4_ERR_ARGUMENT &&
                  g4_session_choose(s, &(g4_choose_options) { .reply_start = 4 }, &token, &err) == G4_OK,
              "%s", err.message);
    G4_EXPECT(g4_session_choose(s, &(g4_choose_options) { .constraint = &calls_back }, &token, &err) == G4_OK &&
                  reentry.status == G4_ERR_ARGUMENT && token == first,
              "%d, %s", (int)reentry.status, err.message);
    g4_session_cancel(s);
    G4_EXPECT(g4_session_choose(s, NULL, &token, &err) == G4_ERR_CANCELED && token == -1 &&
                  g4_session_choose(s, NULL, &token, &err) == G4_OK && token == first && g4_session_n(s) == 4,
              "%s", err.message);
    g4_session_close(s);
    g4_engine_close(e);
}

/* ---- Tokens ------------------------------------------------------------------------------------------------------ */

static void g4_test_kinds(const char *path, int n_bytes)
{
    g4_engine *e = NULL;
    g4_error err = { 0 };
    int count[5] = { 0 }, wrong = 0, stops = 0;
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = path, .n_threads = 1 }, &err)) {
        G4_EXPECT(0, "%s: %s", path, err.message);
        return;
    }
    const g4_config *c = g4_engine_config(e);
    for (g4_token id = 0; id < (g4_token)c->n_vocab; id++) {
        char all[256], text[256];
        const size_t n = g4_token_bytes(e, id, 0, all), n_text = g4_token_bytes(e, id, 1, text);
        const g4_token_kind kind = g4_token_get_kind(e, id);
        int is_stop = 0;
        for (uint32_t i = 0; i < c->n_stop; i++) is_stop |= c->stop[i] == (uint32_t)id;
        if ((unsigned)kind < 5) count[kind]++;
        wrong += (kind == G4_TOKEN_TEXT && n_text == 0) || (kind == G4_TOKEN_BYTE && n_text != 1) ||
                 (kind == G4_TOKEN_CONTROL && (n == 0 || n_text != 0));
        wrong += is_stop != (g4_token_is_stop(e, id) != 0);
        stops += is_stop;
    }
    printf("%s: %d unused, %d text, %d byte, %d control, %d media, %d stop\n", path, count[0], count[1], count[2],
           count[3], count[4], stops);
    const int n_media = (c->image_token != 0) + (c->audio_token != 0) + (c->video_token != 0);
    G4_EXPECT(wrong == 0 && count[G4_TOKEN_BYTE] == n_bytes && count[G4_TOKEN_MEDIA] == n_media && count[1] > 0,
              "%s: %d wrong", path, wrong);
    const char *const markers[] = { "<bos>", "<eos>" };
    for (int i = 0; i < 2; i++) {
        g4_token id = -1;
        size_t n = 0;
        if (!g4_tokenize(e, markers[i], 5, 1, &id, 1, &n, NULL) && n == 1)
            G4_EXPECT(g4_token_get_kind(e, id) == G4_TOKEN_CONTROL, "%s: %s", path, markers[i]);
    }
    G4_EXPECT(g4_token_get_kind(e, -1) == G4_TOKEN_UNUSED && g4_token_get_kind(NULL, 5) == G4_TOKEN_UNUSED &&
                  g4_token_get_kind(e, (g4_token)c->n_vocab) == G4_TOKEN_UNUSED && !g4_token_is_stop(e, -1) &&
                  !g4_token_is_stop(NULL, 1),
              "%s: outside", path);
    g4_engine_close(e);
}

/* ---- The size of a saved session --------------------------------------------------------------------------------- */

static int g4_count(void *user, const void *data, size_t size)
{
    (void)data;
    *(uint64_t *)user += size;
    return 0;
}

static void g4_expect_size(const g4_session *s, const char *path, const char *when)
{
    g4_error err = { 0 };
    uint64_t written = 0;
    const uint64_t said = g4_session_saved_bytes(s);
    const g4_status status = g4_session_save(s, g4_count, &written, &err);
    G4_EXPECT(!status && said == written && said > 48, "%s, %s: %llu bytes said, %llu written: %s", path, when,
              (unsigned long long)said, (unsigned long long)written, err.message);
}

/* A picture and a frame between tokens. */
static g4_status g4_eval_pictures(g4_session *s, g4_engine *e, g4_error *err)
{
    uint8_t *pixels = calloc(3, 200 * 150);
    g4_token ids[800];
    g4_soft *soft[2] = { NULL, NULL };
    g4_medium media[2];
    g4_prompt prompt = { .tokens = ids, .media = media };
    if (!pixels) return g4_fail(err, G4_ERR_MEMORY, "no memory");
    const g4_image image = { .pixels = pixels, .width = 200, .height = 150, .max_tokens = 70 };
    g4_status status = g4_image_encode(&soft[0], e, &image, err);
    if (!status) status = g4_frame_encode(&soft[1], e, &image, err);
    for (int i = 0; i < 2 && !status; i++) {
        ids[prompt.n++] = 3 + i;
        media[prompt.n_media++] = (g4_medium) { prompt.n, soft[i] };
        for (int j = 0; j < g4_soft_n(soft[i]); j++) ids[prompt.n++] = g4_soft_token(soft[i]);
    }
    ids[prompt.n++] = 7;
    if (!status) status = g4_session_eval_prompt(s, &prompt, err);
    g4_soft_close(e, soft[0]);
    g4_soft_close(e, soft[1]);
    free(pixels);
    return status;
}

static void g4_test_saved(const char *path)
{
    static const g4_kv_choice kinds[] = { G4_KV_USE_F16, G4_KV_USE_F32, G4_KV_USE_Q8_0 };
    static const int lengths[] = { 1, 62, 1, 1, 100, 300 }; /* to 1, 63, 64, 65, 165, 465 */
    g4_engine *e = NULL;
    g4_error err = { 0 };
    g4_engine_info info;
    g4_token ids[300];
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = path, .n_threads = 2 }, &err)) {
        G4_EXPECT(0, "%s: %s", path, err.message);
        return;
    }
    g4_engine_get_info(e, &info);
    for (int i = 0; i < 300; i++) ids[i] = (g4_token)(3 + i * 7 % 100);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        g4_session *s = NULL, *fork = NULL;
        int bad = g4_session_open(&s, e, &(g4_session_options) { .n_ctx = 512, .kv = kinds[k] }, &err);
        if (!bad) g4_expect_size(s, path, "empty");
        for (size_t i = 0; !bad && i < sizeof lengths / sizeof *lengths; i++) {
            bad = g4_session_eval(s, ids, lengths[i], &err);
            if (!bad) g4_expect_size(s, path, "longer");
        }
        if (!bad && info.has_image) {
            bad = g4_session_rewind(s, 70, &err) || g4_eval_pictures(s, e, &err);
            if (!bad) g4_expect_size(s, path, "pictures");
        }
        bad = bad || g4_session_fork(&fork, s, &err) || g4_session_eval(fork, ids, 2, &err);
        if (!bad) g4_expect_size(fork, path, "fork");
        bad = bad || g4_session_rewind(s, 65, &err);
        if (!bad) g4_expect_size(s, path, "back");
        G4_EXPECT(!bad, "%s: %s", path, err.message);
        g4_session_close(fork);
        g4_session_close(s);
    }
    g4_engine_close(e);
}

int main(void)
{
    static const char *const texts[] = { "tests/data/text_e2b.g4", "tests/data/text_e2b.q4_0.g4",
                                         "tests/data/text_e4b.g4", "tests/data/text_26b.q8_0.g4",
                                         "tests/data/text_31b.g4", "tests/data/text_gemma3.g4" };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) g4_compare_model(texts[i]);
    G4_EXPECT(g4_ends[G4_STOP_END] > 5 && g4_ends[G4_STOP_MAX_TOKENS] > 20 && g4_ends[G4_STOP_CONTEXT] > 3 &&
                  g4_ends[G4_STOP_CONSTRAINT] > 3,
              "%d ends, %d of length, %d of context, %d of the constraint", g4_ends[G4_STOP_END],
              g4_ends[G4_STOP_MAX_TOKENS], g4_ends[G4_STOP_CONTEXT], g4_ends[G4_STOP_CONSTRAINT]);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) g4_test_saved(texts[i]);
    g4_test_saved("tests/data/media/e2b.g4");
    g4_test_saved("tests/data/media/31b.g4");
    g4_test_logits();
    g4_test_refusals();
    g4_test_kinds("tests/data/vocab.g4", 256);
    g4_test_kinds("tests/data/tokenizer_spm.g4", 256);
    g4_test_kinds("tests/data/tokenizer_small.g4", 256);
    g4_test_kinds("tests/data/media/e2b.g4", 256);
    G4_EXPECT(g4_session_saved_bytes(NULL) == 0, "NULL");
    return g4_test_end();
}
