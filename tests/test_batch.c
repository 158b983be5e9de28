/* test_batch.c - every answer of a batch has the bits that it has alone: tokens, text, log-probabilities and logits at
 * each of its steps, whoever shares its passes. Sessions of all lengths join and leave at every step; they are greedy
 * and sampled, constrained, cut by stop strings, guess what may follow, and hold pictures. */
#include "engine/generate.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "failing.h"
#include "test.h"

enum { N_ANSWERS = 9, N_PASSERS = 3, N_CTX = 448, MAX_PROMPT = 330 };

/* ---- What an answer is ------------------------------------------------------------------------------------- */

typedef struct { /* all that is told of an answer, as one number, and how it ended */
    uint64_t hash;
    int n_outputs, is_done;
    g4_status status;
    g4_stop stop;
    int n_tokens, n;
    int sees_logits; /* all of them are there for each choice */
} g4_told;

static uint64_t g4_hash_more(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * UINT64_C(1099511628211);
    return h;
}

static int g4_tell(void *user, const g4_output *out)
{
    g4_told *told = user;
    told->n_outputs++;
    told->hash = g4_hash_more(told->hash, &out->token, sizeof out->token);
    told->hash = g4_hash_more(told->hash, out->text, out->text_len);
    if (!told->sees_logits) return 0;
    told->hash = g4_hash_more(told->hash, &out->logprob, sizeof out->logprob);
    for (int i = 0; i < out->n_top; i++) told->hash = g4_hash_more(told->hash, &out->top[i], sizeof out->top[i]);
    return 0;
}

/* It is over; the logits behind it belong to what is compared. */
static void g4_tell_end(g4_told *told, g4_session *s, g4_status status, const g4_result *result)
{
    told->is_done++;
    told->status = status;
    told->stop = result->stop;
    told->n_tokens = result->n_tokens;
    told->n = g4_session_n(s);
    const float *logits = g4_session_logits(s);
    if (logits) told->hash = g4_hash_more(told->hash, logits, s->e->file.config.n_vocab * sizeof *logits);
}

static void g4_tell_done(void *user, g4_session *s, g4_status status, const g4_result *result, const g4_error *err)
{
    G4_EXPECT((status == G4_OK) == (err == NULL), "status %d", status);
    g4_tell_end(user, s, status, result);
}

/* ---- A constraint: all tokens, or one, few or half of them by the number of the choice ------------------------ */

typedef struct {
    int is_narrow, n_chosen;
    const g4_session *s;
    g4_told *told;
} g4_narrow;

static int g4_narrow_mask(void *user, uint32_t *mask, int n_vocab)
{
    const g4_narrow *k = user;
    const uint32_t at = (uint32_t)k->n_chosen;
    for (int id = 0; k->is_narrow && id < n_vocab; id++) {
        const uint32_t h = ((uint32_t)id * 2654435761u) ^ (at * 40503u);
        const int is_in = at % 4 == 0   ? (uint32_t)id == (7 * at + 40) % (uint32_t)n_vocab
                          : at % 4 == 1 ? (h >> 8) % 16 == 0
                                        : (h >> 8) % 2 == 0;
        if (!is_in) mask[id / 32] &= ~(1u << (id % 32));
    }
    return 0;
}

static void g4_narrow_accept(void *user, g4_token token)
{
    g4_narrow *k = user;
    k->n_chosen += token >= 0;
    if (k->told->sees_logits)
        k->told->hash = g4_hash_more(k->told->hash, k->s->logits, k->s->e->file.config.n_vocab * sizeof(float));
}

/* ---- The answers -------------------------------------------------------------------------------------------- */

typedef struct {
    int n_prompt, period;  /* its tokens repeat, so that what follows can be guessed; 0: they do not */
    int max_tokens, joins; /* at that step */
    g4_sampling sampling;
    int is_narrow, wants_logprobs, has_picture;
    const char *stop;
} g4_kind;

static const g4_kind g4_kinds[N_ANSWERS] = {
    { .n_prompt = 3, .max_tokens = 40, .joins = 0 },
    { .n_prompt = 130, .period = 9, .max_tokens = 60, .joins = 0, .wants_logprobs = 1 },
    { .n_prompt = 64, .max_tokens = 20, .joins = 2, .sampling = { .temperature = 1, .top_k = 40, .seed = 3 } },
    { .n_prompt = MAX_PROMPT, .max_tokens = 30, .joins = 3, .wants_logprobs = 1 },
    { .n_prompt = 40, .period = 5, .max_tokens = 50, .joins = 4, .is_narrow = 1 },
    { .n_prompt = 65, .period = 3, .max_tokens = 50, .joins = 6, .sampling = { .temperature = 0.1f, .seed = 9 } },
    { .n_prompt = 1, .max_tokens = 25, .joins = 9, .is_narrow = 1, .wants_logprobs = 1 },
    { .n_prompt = 150, .max_tokens = 30, .joins = 11, .has_picture = 1, .sampling = { .repeat_penalty = 1.2f } },
    { .n_prompt = 20, .period = 20, .max_tokens = 40, .joins = 12, .stop = "e" },
};

typedef struct { /* one answer, alone or in a batch */
    g4_session *s;
    g4_token tokens[MAX_PROMPT];
    g4_medium picture;
    g4_prompt prompt;
    g4_narrow narrow;
    g4_constraint constraint;
    g4_generate_options generate;
    g4_batch_request request;
    g4_told told;
} g4_answering;

static void g4_answering_open(g4_answering *a, g4_engine *e, const g4_kind *kind, g4_kv_choice kv, g4_soft *picture)
{
    const int n_vocab = (int)e->file.config.n_vocab;
    g4_error err = { 0 };
    memset(a, 0, sizeof *a);
    for (int i = 0; i < kind->n_prompt; i++) {
        const int k = kind->period ? i % kind->period : i;
        a->tokens[i] = (g4_token)((kind->n_prompt * 131 + k * 37 + k * k * 5 + 30) % n_vocab);
    }
    a->prompt = (g4_prompt) { .tokens = a->tokens, .n = kind->n_prompt };
    if (kind->has_picture && picture) {
        a->picture = (g4_medium) { 30, picture };
        for (int i = 0; i < picture->n; i++) a->tokens[30 + i] = picture->token;
        a->prompt.media = &a->picture;
        a->prompt.n_media = 1;
    }
    a->constraint = (g4_constraint) { .mask = g4_narrow_mask, .accept = g4_narrow_accept, .user = &a->narrow };
    a->generate = (g4_generate_options) { .sampling = &kind->sampling,
                                          .max_tokens = kind->max_tokens,
                                          .stop = &kind->stop,
                                          .n_stop = kind->stop != NULL,
                                          .no_guard = 1,
                                          .ignore_stop_ids = 1,
                                          .want_logprobs = kind->wants_logprobs,
                                          .n_top = kind->wants_logprobs ? 5 : 0,
                                          .constraint = kind->is_narrow || kind->wants_logprobs ? &a->constraint : NULL,
                                          .output = g4_tell,
                                          .user = &a->told };
    a->request =
        (g4_batch_request) { .prompt = &a->prompt, .generate = &a->generate, .done = g4_tell_done, .user = &a->told };
    const g4_session_options opt = { .n_ctx = N_CTX, .kv = kv, .chunk = 48 };
    G4_EXPECT(g4_session_open(&a->s, e, &opt, &err) == G4_OK, "%s", err.message);
    a->told = (g4_told) { .hash = UINT64_C(14695981039346656037), .sees_logits = kind->wants_logprobs };
    a->narrow = (g4_narrow) { .is_narrow = kind->is_narrow, .s = a->s, .told = &a->told };
}

static void g4_answer_alone(g4_answering *a)
{
    g4_error err = { 0 };
    g4_result result = { .n_tokens = 0 };
    g4_status status = g4_session_sync(a->s, &a->prompt, NULL, &err);
    if (!status) status = g4_session_generate(a->s, &a->generate, &result, &err);
    G4_EXPECT(status == G4_OK, "%s", err.message);
    g4_tell_end(&a->told, a->s, status, &result);
}

static void g4_expect_equal(const g4_told *got, const g4_told *want, const char *what, int i)
{
    G4_EXPECT(got->is_done == 1 && got->hash == want->hash && got->n_outputs == want->n_outputs &&
                  got->status == want->status && got->stop == want->stop && got->n_tokens == want->n_tokens &&
                  got->n == want->n,
              "%s, answer %d: %d tokens (%s), alone %d (%s); hash %llx, %llx; done %d, status %d, n %d, %d", what, i,
              got->n_tokens, g4_stop_name(got->stop), want->n_tokens, g4_stop_name(want->stop),
              (unsigned long long)got->hash, (unsigned long long)want->hash, got->is_done, got->status, got->n,
              want->n);
}

/* ---- Equal bits ----------------------------------------------------------------------------------------------- */

static g4_engine *g4_open(const char *path, int n_threads, const char *isa, const g4_allocator *a)
{
    g4_engine *e = NULL;
    g4_error err = { 0 };
    const g4_engine_options opt = { .model_path = path, .n_threads = n_threads, .isa = isa, .allocator = a };
    g4_engine_open(&e, &opt, &err);
    G4_EXPECT(e != NULL, "%s: %s", path, err.message);
    return e;
}

/* A picture where the model sees, else NULL. */
static g4_soft *g4_some_picture(g4_engine *e)
{
    enum { SIDE = 96 };
    static uint8_t pixels[3 * SIDE * SIDE];
    g4_soft *soft = NULL;
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 2654435761u >> 13);
    const g4_image image = { .pixels = pixels, .width = SIDE, .height = SIDE, .max_tokens = 70 };
    if (e->vision) g4_image_encode(&soft, e, &image, NULL);
    return soft;
}

typedef struct { /* of an answer that was on its way */
    g4_session *s;
    int which;
} g4_branch;
enum { N_BRANCHES = 24, MARKED = 200 };
typedef struct {
    g4_branch branches[N_BRANCHES];
    int n, was_marked, is_marked; /* MARKED of answer 3, which is the longest: a pass ended there */
} g4_branches;

/* Between two steps: a fork of one that is in the batch, wherever it is. */
static void g4_branch_off(g4_branches *f, const g4_answering *a, g4_batch *b, int step)
{
    const int which = step % N_ANSWERS, n = step % 2 ? N_CTX : g4_session_n(a[which].s) * 3 / 4;
    g4_session *s = NULL;
    g4_error err = { 0 };
    f->is_marked |= g4_session_n(a[3].s) == MARKED;
    if (!f->was_marked && g4_session_n(a[3].s) > 0 && g4_session_n(a[3].s) < MARKED) {
        G4_EXPECT(!g4_batch_mark(b, a[3].s, MARKED, &err), "%s", err.message);
        f->was_marked = 1;
    }
    if (f->n == N_BRANCHES || a[which].told.is_done || g4_batch_fork(b, &s, a[which].s, n, &err)) return;
    G4_EXPECT(g4_session_n(s) <= n && g4_session_n(s) <= g4_session_n(a[which].s), "%d of %d", g4_session_n(s), n);
    f->branches[f->n++] = (g4_branch) { s, which };
}

/* Each of them, with the rest of its prompt, gives the answer of the one that it was a fork of. */
static void g4_expect_branches(g4_branches *f, g4_engine *e, const g4_answering *alone, g4_kv_choice kv,
                               g4_soft *picture)
{
    g4_answering *a = calloc(1, sizeof *a);
    for (int i = 0; a && i < f->n; i++) {
        const g4_branch *branch = &f->branches[i];
        g4_answering_open(a, e, &g4_kinds[branch->which], kv, picture);
        g4_session_close(a->s);
        a->narrow.s = a->s = branch->s;
        g4_answer_alone(a);
        g4_expect_equal(&a->told, &alone[branch->which].told, "a branch", branch->which);
        g4_session_close(a->s);
    }
    free(a);
}

/* Those behind the answers come and go: with every step one leaves, wherever it is, and begins anew. */
static void g4_pass_by(g4_answering *passers, g4_batch *b, int step)
{
    g4_answering *a = &passers[step % N_PASSERS];
    g4_error err = { 0 };
    g4_batch_remove(b, a->s);
    G4_EXPECT(g4_batch_add(b, a->s, &a->request, &err) == G4_OK, "%s", err.message);
}

/* All answers in one batch; each joins at its step, or up to `spread` steps later, and number `leaves` is removed when
 * it has told five tokens; -1: nobody. */
static void g4_answer_together(g4_answering *a, g4_engine *e, const g4_batch_options *opt, int spread, int leaves,
                               g4_branches *f)
{
    g4_batch *b = NULL;
    g4_error err = { 0 };
    int n_done = 0, is_added[N_ANSWERS] = { 0 };
    G4_EXPECT(g4_batch_open(&b, e, opt, &err) == G4_OK, "%s", err.message);
    for (int step = 0; b && n_done < N_ANSWERS; step++) {
        g4_pass_by(a + N_ANSWERS, b, step);
        for (int i = 0; i < N_ANSWERS; i++) {
            if (is_added[i] || g4_kinds[i].joins + (spread ? (i * 7 + spread * 5) % spread : 0) > step) continue;
            G4_EXPECT(g4_batch_add(b, a[i].s, &a[i].request, &err) == G4_OK, "%s", err.message);
            is_added[i] = 1;
        }
        G4_EXPECT(g4_batch_step(b, &err) == G4_OK, "%s", err.message);
        g4_branch_off(f, a, b, step);
        if (leaves >= 0 && a[leaves].told.n_outputs >= 5 && !a[leaves].told.is_done) g4_batch_remove(b, a[leaves].s);
        n_done = 0;
        for (int i = 0; i < N_ANSWERS; i++) n_done += a[i].told.is_done;
    }
    g4_batch_close(b);
}

typedef struct {
    const char *path, *isa;
    int n_threads, spread;
    g4_kv_choice kv;
    g4_batch_options opt;
} g4_way;

static void g4_test_equal(const g4_way *way)
{
    g4_engine *e = g4_open(way->path, way->n_threads, way->isa, NULL);
    g4_answering *alone = calloc(N_ANSWERS, sizeof *alone), *together = calloc(N_ANSWERS + N_PASSERS, sizeof *together);
    g4_soft *picture = e ? g4_some_picture(e) : NULL;
    uint64_t n_guessed = 0;
    g4_branches branches = { .n = 0 };
    const int ok = e && alone && together, leaves = way->spread % N_ANSWERS;
    for (int i = 0; ok && i < N_ANSWERS; i++) {
        g4_answering_open(&alone[i], e, &g4_kinds[i], way->kv, picture);
        g4_answering_open(&together[i], e, &g4_kinds[i], way->kv, picture);
        g4_answer_alone(&alone[i]);
    }
    for (int i = 0; ok && i < N_PASSERS; i++)
        g4_answering_open(&together[N_ANSWERS + i], e, &g4_kinds[3 + 2 * i], way->kv, picture);
    if (ok) g4_answer_together(together, e, &way->opt, way->spread, leaves, &branches);
    for (int i = 0; ok && i < N_ANSWERS; i++) {
        const g4_told *told = &together[i].told;
        n_guessed += together[i].s->n_guessed;
        if (i == leaves)
            G4_EXPECT(told->is_done == 1 && told->status == G4_ERR_CANCELED && told->stop == G4_STOP_CANCELED &&
                          told->n_outputs >= 5 && told->n == g4_kinds[i].n_prompt + told->n_tokens,
                      "%s: the one that left told %d, has %d", way->path, told->n_outputs, told->n);
        else
            g4_expect_equal(told, &alone[i].told, way->path, i);
        g4_session_close(alone[i].s);
        g4_session_close(together[i].s);
    }
    for (int i = 0; ok && i < N_PASSERS; i++) g4_session_close(together[N_ANSWERS + i].s);
    if (ok) g4_expect_branches(&branches, e, alone, way->kv, picture);
    G4_EXPECT(branches.n > 5 && branches.is_marked == branches.was_marked, "%d branches", branches.n);
    G4_EXPECT(n_guessed > 0, "%s: nothing was guessed", way->path);
    g4_soft_release(picture);
    free(alone);
    free(together);
    g4_engine_close(e);
}

/* ---- Forks, joins from `done` --------------------------------------------------------------------------------- */

typedef struct { /* answers one after the other in the same session, each added when the one before is done */
    g4_batch *batch;
    g4_answering *a;
    int n_left;
} g4_again;

static void g4_again_done(void *user, g4_session *s, g4_status status, const g4_result *result, const g4_error *err)
{
    g4_again *again = user;
    g4_error more = { 0 };
    g4_tell_done(&again->a->told, s, status, result, err);
    if (again->n_left-- == 0) return;
    if (status) {
        G4_EXPECT(g4_batch_add(again->batch, s, &again->a->request, &more) == G4_ERR_ARGUMENT, "added while it closes");
        return;
    }
    g4_batch_request r = again->a->request;
    r.prompt = NULL;
    G4_EXPECT(g4_batch_add(again->batch, s, &r, &more) == G4_OK, "%s", more.message);
    G4_EXPECT(g4_batch_step(again->batch, &more) == G4_ERR_ARGUMENT, "a step within a step");
    g4_batch_close(again->batch); /* nor that */
}

/* Four answers to one prompt, by forks that share its pages, with seeds of their own; and a session that answers three
 * times. */
static void g4_test_forks(g4_engine *e)
{
    enum { N = 4 };
    g4_answering *base = calloc(2 + N, sizeof *base), *again = base + 1 + N;
    g4_sampling sampling[N];
    g4_session *alone[N];
    g4_told told[N];
    g4_batch *b = NULL;
    g4_error err = { 0 };
    if (!base) return;
    g4_answering_open(&base[0], e, &g4_kinds[3], G4_KV_DEFAULT, NULL);
    g4_answering_open(again, e, &g4_kinds[2], G4_KV_DEFAULT, NULL);
    G4_EXPECT(g4_session_sync(base[0].s, &base[0].prompt, NULL, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(g4_batch_open(&b, e, NULL, &err) == G4_OK, "%s", err.message);
    for (int i = 0; b && i < N; i++) {
        sampling[i] = (g4_sampling) { .temperature = 1, .top_k = 50, .seed = (uint64_t)i };
        told[i] = (g4_told) { .hash = UINT64_C(14695981039346656037) };
        G4_EXPECT(!g4_session_fork(&base[1 + i].s, base[0].s, &err) && !g4_session_fork(&alone[i], base[0].s, &err),
                  "%s", err.message);
        g4_generate_options opt = { .sampling = &sampling[i], .max_tokens = 20, .output = g4_tell, .user = &told[i] };
        g4_result result;
        const g4_status status = g4_session_generate(alone[i], &opt, &result, &err);
        g4_tell_end(&told[i], alone[i], status, &result);
        g4_session_close(alone[i]);
        base[1 + i].told = (g4_told) { .hash = UINT64_C(14695981039346656037) };
        base[1 + i].generate = opt;
        base[1 + i].generate.user = &base[1 + i].told;
        const g4_batch_request r = { .generate = &base[1 + i].generate,
                                     .done = g4_tell_done,
                                     .user = &base[1 + i].told };
        G4_EXPECT(g4_batch_add(b, base[1 + i].s, &r, &err) == G4_OK, "%s", err.message);
    }
    g4_again repeat = { b, again, 2 };
    again->request.done = g4_again_done;
    again->request.user = &repeat;
    G4_EXPECT(g4_batch_add(b, again->s, &again->request, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(g4_batch_run(b, &err) == G4_OK && g4_batch_n(b) == 0, "%s", err.message);
    for (int i = 0; b && i < N; i++) g4_expect_equal(&base[1 + i].told, &told[i], "fork", i);
    G4_EXPECT(again->told.is_done == 3 && again->told.n == g4_kinds[2].n_prompt + 3 * g4_kinds[2].max_tokens,
              "%d answers, %d tokens", again->told.is_done, again->told.n);
    repeat.n_left = 1;
    G4_EXPECT(!g4_batch_add(b, again->s, &again->request, &err) && !g4_batch_step(b, &err), "%s", err.message);
    g4_batch_close(b);
    G4_EXPECT(again->told.is_done == 4 && !g4_session_rewind(again->s, 1, &err), "%s", err.message);
    for (int i = 0; i < 2 + N; i++) g4_session_close(base[i].s);
    free(base);
}

/* ---- Callbacks meddle -------------------------------------------------------------------------------------------- */

typedef struct { /* what the outputs of a session do to the batch that it is in */
    g4_batch *batch;
    g4_session *victim; /* removed at the second output, and by what is told of its own end */
    int n_told, n_ends, at;
    char last[32]; /* the text of output `at` */
} g4_meddling;

static int g4_meddle(void *user, const g4_output *out)
{
    g4_meddling *m = user;
    g4_error err = { 0 };
    if (++m->n_told == 2) g4_batch_remove(m->batch, m->victim);
    if (out->token >= 0 && out->text_len > 0 && out->text_len < sizeof m->last) {
        snprintf(m->last, sizeof m->last, "%.*s", (int)out->text_len, out->text);
        m->at = m->n_told;
    }
    if (out->token >= 0) return 0;
    m->n_ends++;
    g4_batch_remove(m->batch, m->victim);
    G4_EXPECT(g4_batch_step(m->batch, &err) == G4_ERR_ARGUMENT, "a step while a session leaves");
    g4_batch_close(m->batch); /* nor that */
    return 0;
}

typedef struct { /* `done` removes another one */
    g4_told *told;
    g4_batch *batch;
    g4_session *victim;
} g4_drag;

static void g4_drag_done(void *user, g4_session *s, g4_status status, const g4_result *result, const g4_error *err)
{
    const g4_drag *drag = user;
    g4_tell_done(drag->told, s, status, result, err);
    g4_batch_remove(drag->batch, drag->victim);
}

/* What a callback removes is out at the end of the step; text that was held back is told when its session is removed,
 * and may try to remove it again. */
static void g4_test_removals(g4_engine *e)
{
    enum { N = 4 };
    g4_answering *a = calloc(N, sizeof *a);
    g4_batch *b = NULL;
    g4_error err = { 0 };
    if (!a) return;
    G4_EXPECT(g4_batch_open(&b, e, NULL, &err) == G4_OK, "%s", err.message);
    for (int i = 0; b && i < N; i++) g4_answering_open(&a[i], e, &g4_kinds[0], G4_KV_DEFAULT, NULL);
    g4_meddling outer = { .batch = b, .victim = a[1].s };
    a[0].generate.output = g4_meddle;
    a[0].generate.user = &outer;
    g4_drag drag = { &a[1].told, b, a[2].s };
    a[1].request.done = g4_drag_done;
    a[1].request.user = &drag;
    for (int i = 0; b && i < 3; i++)
        G4_EXPECT(g4_batch_add(b, a[i].s, &a[i].request, &err) == G4_OK, "%s", err.message);
    while (outer.n_told < 2 && !g4_batch_step(b, &err)) continue;
    G4_EXPECT(a[1].told.is_done == 1 && a[1].told.status == G4_ERR_CANCELED && a[2].told.is_done == 1 &&
                  a[2].told.status == G4_ERR_CANCELED && g4_batch_n(b) == 1,
              "%d and %d are done, %d sessions are left", a[1].told.is_done, a[2].told.is_done, g4_batch_n(b));
    g4_batch_remove(b, a[0].s);
    g4_meddling own = { .batch = b, .victim = a[3].s, .n_told = 2 };
    char held[sizeof own.last + 2];
    const char *const stop = held;
    a[3].generate.output = g4_meddle;
    a[3].generate.user = &own;
    a[3].generate.no_lookup = 1;
    for (int is_held = 0; is_held < 2; is_held++) { /* first to see what to hold back */
        const int at = is_held ? own.at : 12;
        own.n_told = 2;
        G4_EXPECT(!g4_batch_add(b, a[3].s, &a[3].request, &err), "%s", err.message);
        while (own.n_told < at && !g4_batch_step(b, &err)) continue;
        snprintf(held, sizeof held, "%s~", own.last);
        a[3].generate.stop = &stop;
        a[3].generate.n_stop = 1;
        a[3].told.is_done = 0;
        g4_batch_remove(b, a[3].s);
        G4_EXPECT(a[3].told.is_done == 1 && g4_batch_n(b) == 0, "%d times done", a[3].told.is_done);
    }
    G4_EXPECT(own.n_ends == 1, "%d ends told of \"%s\"", own.n_ends, held);
    g4_batch_close(b);
    for (int i = 0; i < N; i++) g4_session_close(a[i].s);
    free(a);
}

/* ---- A step is cut short ---------------------------------------------------------------------------------------- */

typedef struct { /* another thread is in a pass of the engine when a step, which is cancelled, asks for it */
    g4_engine *e;
    g4_told *told;
    g4_cancel cancel;
    pthread_t thread;
    atomic_int is_in, may_leave;
    int n_cut;
} g4_other_pass;

static void *g4_be_in(void *arg)
{
    g4_other_pass *o = arg;
    G4_EXPECT(g4_engine_enter(o->e, NULL, NULL) == G4_OK, "another thread's pass");
    atomic_store(&o->is_in, 1);
    while (!atomic_load(&o->may_leave)) sched_yield();
    g4_engine_leave(o->e, NULL, NULL);
    return NULL;
}

static int g4_cut_step(void *user, const g4_output *out)
{
    g4_other_pass *o = user;
    g4_tell(o->told, out);
    if (o->told->n_outputs % 3 || atomic_load(&o->is_in)) return 0;
    g4_cancel_set(&o->cancel);
    o->n_cut++;
    if (pthread_create(&o->thread, NULL, g4_be_in, o) != 0) return 1;
    while (!atomic_load(&o->is_in)) sched_yield();
    return 0;
}

/* More answers than the head takes at once, and steps that end before it is reached: nobody is lost. */
static void g4_test_cut_steps(g4_engine *e)
{
    enum { N = 24 };
    g4_answering *a = calloc(N + 1, sizeof *a);
    g4_other_pass other = { .e = e, .told = a ? &a[1].told : NULL };
    g4_batch *b = NULL;
    g4_error err = { 0 };
    if (!a) return;
    G4_EXPECT(!g4_batch_open(&b, e, &(g4_batch_options) { .limits.cancel = &other.cancel }, &err), "%s", err.message);
    for (int i = 0; i <= N; i++) g4_answering_open(&a[i], e, &g4_kinds[0], G4_KV_DEFAULT, NULL);
    g4_answer_alone(&a[0]);
    a[1].generate.output = g4_cut_step;
    a[1].generate.user = &other;
    for (int i = 1; b && i <= N; i++) G4_EXPECT(!g4_batch_add(b, a[i].s, &a[i].request, &err), "%s", err.message);
    while (b && g4_batch_n(b) > 0) {
        const g4_status status = g4_batch_step(b, &err);
        G4_EXPECT(!status || (status == G4_ERR_CANCELED && atomic_load(&other.is_in)), "%s", err.message);
        if (!atomic_load(&other.is_in)) continue;
        atomic_store(&other.may_leave, 1);
        pthread_join(other.thread, NULL);
        atomic_store(&other.may_leave, 0);
        atomic_store(&other.is_in, 0);
        g4_cancel_clear(&other.cancel);
    }
    G4_EXPECT(other.n_cut > 3, "%d steps were cut short", other.n_cut);
    for (int i = 1; i <= N; i++) g4_expect_equal(&a[i].told, &a[0].told, "in steps cut short", i);
    g4_batch_close(b);
    for (int i = 0; i <= N; i++) g4_session_close(a[i].s);
    free(a);
}

/* ---- What forks need ----------------------------------------------------------------------------------------- */

static void *g4_counting_alloc(void *user, size_t size, size_t align)
{
    void *p = aligned_alloc(align, (size + align - 1) / align * align);
    if (p) *(uint64_t *)user += size;
    return p;
}

static void g4_counting_free(void *user, void *ptr, size_t size)
{
    if (ptr) *(uint64_t *)user -= size;
    free(ptr);
}

/* A full context of forks takes what was planned, in which what they share stands once. */
static void g4_test_plan(const char *path)
{
    enum { N = 4, BEFORE = 260 };
    uint64_t bytes = 0;
    const g4_allocator counting = { g4_counting_alloc, g4_counting_free, &bytes };
    g4_engine *e = g4_open(path, 1, NULL, &counting);
    const g4_session_options opt = { .n_ctx = N_CTX };
    g4_session *s[N] = { NULL };
    g4_error err = { 0 };
    g4_memory_plan one, forks, plain;
    g4_token ids[N_CTX];
    if (!e) return;
    for (int i = 0; i < N_CTX; i++) ids[i] = 10 + i * 7 % 50;
    g4_session_plan(e, &opt, &one);
    g4_session_plan_forks(e, &opt, 1, BEFORE, &plain);
    G4_EXPECT(plain.kv == one.kv && plain.work == one.work && one.kv > 0, "%llu", (unsigned long long)plain.kv);
    g4_session_plan_forks(e, &opt, N, 0, &plain);
    G4_EXPECT(plain.kv == N * one.kv && plain.work == N * one.work, "%llu", (unsigned long long)plain.kv);
    g4_session_plan_forks(e, &opt, N, N_CTX + 1, &plain);
    G4_EXPECT(plain.kv == 0 && plain.work == 0, "more than there is");
    g4_session_plan_forks(e, &opt, N, BEFORE, &forks);
    const uint64_t before = bytes;
    G4_EXPECT(!g4_session_open(&s[0], e, &opt, &err) && !g4_session_eval(s[0], ids, BEFORE, &err), "%s", err.message);
    for (int i = 1; i < N; i++) G4_EXPECT(!g4_session_fork(&s[i], s[0], &err), "%s", err.message);
    for (int i = 0; i < N; i++)
        G4_EXPECT(!g4_session_eval(s[i], ids + BEFORE, N_CTX - BEFORE, &err), "%s", err.message);
    const uint64_t slack = N * 65536; /* of the tables of a session */
    G4_EXPECT(bytes - before <= forks.kv + forks.work + slack && forks.kv < N * one.kv,
              "%llu bytes, planned %llu + %llu; %d times alone %llu", (unsigned long long)(bytes - before),
              (unsigned long long)forks.kv, (unsigned long long)forks.work, (int)N, (unsigned long long)(N * one.kv));
    for (int i = 0; i < N; i++) g4_session_close(s[i]);
    G4_EXPECT(bytes == before, "%llu bytes are left", (unsigned long long)(bytes - before));
    g4_engine_close(e);
}

/* ---- Misuse, full contexts, no memory ---------------------------------------------------------------------------- */

static void g4_expect_refused(g4_batch *b, g4_session *s, const g4_batch_request *r, const char *want)
{
    g4_error err = { 0 };
    const g4_status status = g4_batch_add(b, s, r, &err);
    G4_EXPECT(status != G4_OK && strstr(err.message, want) != NULL, "%d: %s", status, err.message);
}

static void g4_test_misuse(g4_engine *e, g4_engine *other)
{
    g4_answering *a = calloc(4, sizeof *a);
    g4_batch *b = NULL;
    g4_error err = { 0 };
    if (!a) return;
    for (int i = 0; i < 4; i++) g4_answering_open(&a[i], i == 2 ? other : e, &g4_kinds[2], G4_KV_DEFAULT, NULL);
    const g4_batch_options bad[] = { { .n_rows = -1 }, { .prompt_rows = -1 }, { .n_rows = 1 << 20 } };
    for (int i = 0; i < 3; i++)
        G4_EXPECT(g4_batch_open(&b, e, &bad[i], &err) == G4_ERR_ARGUMENT && !b, "%s", err.message);
    G4_EXPECT(g4_batch_open(NULL, e, NULL, &err) == G4_ERR_ARGUMENT && g4_batch_step(NULL, &err) == G4_ERR_ARGUMENT &&
                  g4_batch_run(NULL, &err) == G4_ERR_ARGUMENT && g4_batch_n(NULL) == 0,
              "NULL");
    G4_EXPECT(g4_batch_open(&b, e, NULL, &err) == G4_OK, "%s", err.message);
    g4_batch_remove(NULL, a[0].s);
    g4_batch_remove(b, a[0].s);
    g4_expect_refused(NULL, a[0].s, &a[0].request, "batch is NULL");
    g4_expect_refused(b, NULL, &a[0].request, "session is NULL");
    g4_expect_refused(b, a[0].s, NULL, "request is NULL");
    g4_expect_refused(b, a[2].s, &a[2].request, "another engine");
    g4_expect_refused(b, a[0].s, &(g4_batch_request) { .prompt = NULL }, "timeline is empty");
    g4_expect_refused(b, a[0].s, &(g4_batch_request) { .prompt = &(g4_prompt) { .tokens = a[0].tokens } }, "0 tokens");
    const g4_token outside = -5;
    g4_expect_refused(b, a[0].s, &(g4_batch_request) { .prompt = &(g4_prompt) { .tokens = &outside, .n = 1 } },
                      "token 0 is -5");
    G4_EXPECT(g4_batch_add(b, a[0].s, &a[0].request, &err) == G4_OK, "%s", err.message);
    g4_expect_refused(b, a[0].s, &a[0].request, "in the batch already");
    G4_EXPECT(g4_session_sync(a[0].s, &a[0].prompt, NULL, &err) == G4_ERR_ARGUMENT,
              "a session in a batch is in a call");
    g4_session *fork = NULL;
    G4_EXPECT(g4_batch_fork(b, NULL, a[0].s, 1, &err) == G4_ERR_ARGUMENT &&
                  g4_batch_fork(NULL, &fork, a[0].s, 1, &err) == G4_ERR_ARGUMENT &&
                  g4_batch_fork(b, &fork, a[1].s, 1, &err) == G4_ERR_ARGUMENT &&
                  g4_batch_fork(b, &fork, a[0].s, -1, &err) == G4_ERR_ARGUMENT && fork == NULL &&
                  g4_batch_mark(b, a[1].s, 5, &err) == G4_ERR_ARGUMENT && !g4_batch_mark(b, a[0].s, -5, &err) &&
                  !g4_batch_mark(b, a[0].s, 1 << 30, &err),
              "forks of what is in a batch: %s", err.message);
    /* What is wrong with the options of one is told when its answer begins, and ends that one. */
    a[1].generate.max_tokens = -1;
    a[3].generate.limits.seconds = -1;
    G4_EXPECT(g4_batch_add(b, a[1].s, &a[1].request, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(g4_batch_add(b, a[3].s, &a[3].request, &err) == G4_ERR_CANCELED, "late before it begins");
    const g4_cancel set = { 1 };
    g4_batch *late = NULL;
    G4_EXPECT(g4_batch_open(&late, e, &(g4_batch_options) { .limits.cancel = &set }, &err) == G4_OK, "%s", err.message);
    a[3].generate.limits.seconds = 0;
    G4_EXPECT(g4_batch_add(late, a[3].s, &a[3].request, &err) == G4_OK &&
                  g4_batch_step(late, &err) == G4_ERR_CANCELED && g4_batch_n(late) == 1 && !a[3].told.is_done,
              "a cancelled step loses nobody: %s", err.message);
    g4_batch_close(late);
    G4_EXPECT(a[3].told.is_done == 1 && a[3].told.status == G4_ERR_CANCELED, "status %d", a[3].told.status);
    G4_EXPECT(g4_batch_run(b, &err) == G4_OK && a[0].told.status == G4_OK && a[0].told.n_tokens == 20, "%d tokens",
              a[0].told.n_tokens);
    G4_EXPECT(a[1].told.is_done == 1 && a[1].told.status == G4_ERR_ARGUMENT && a[1].told.n == g4_kinds[2].n_prompt,
              "status %d", a[1].told.status);
    g4_batch_close(b);
    for (int i = 0; i < 4; i++) g4_session_close(a[i].s);
    free(a);
}

/* Each allocation in turn fails: that session ends with an error and holds what it held, the others have their bits. */
static void g4_test_memory(const char *path)
{
    enum { N = 4 };
    static const int which[N] = { 2, 4, 6, 8 };
    g4_failing failing = { .fail_at = -1 };
    const g4_allocator allocator = g4_failing_allocator(&failing);
    g4_engine *e = g4_open(path, 1, NULL, &allocator);
    g4_answering *a = calloc(2 * N, sizeof *a);
    int n_failed = 0;
    for (int i = 0; e && a && i < N; i++) {
        g4_answering_open(&a[i], e, &g4_kinds[which[i]], G4_KV_DEFAULT, NULL);
        g4_answer_alone(&a[i]);
    }
    for (long at = 0; e && a && at < 200; at++) {
        g4_batch *b = NULL;
        g4_error err = { 0 };
        G4_EXPECT(g4_batch_open(&b, e, NULL, &err) == G4_OK, "%s", err.message);
        for (int i = 0; i < N; i++) g4_answering_open(&a[N + i], e, &g4_kinds[which[i]], G4_KV_DEFAULT, NULL);
        failing.fail_at = failing.calls + at;
        for (int i = 0; i < N; i++) {
            if (!g4_batch_add(b, a[N + i].s, &a[N + i].request, &err)) continue;
            a[N + i].told.is_done = 1;
            a[N + i].told.status = err.code;
        }
        G4_EXPECT(g4_batch_run(b, &err) == G4_OK, "%s", err.message);
        const int has_failed = failing.calls > failing.fail_at;
        failing.fail_at = -1;
        for (int i = 0; i < N; i++) {
            const g4_told *told = &a[N + i].told;
            n_failed += told->status == G4_ERR_MEMORY;
            if (told->status == G4_ERR_MEMORY)
                G4_EXPECT(told->is_done == 1 && (told->n == 0 || told->n == a[i].prompt.n), "allocation %ld: n is %d",
                          at, told->n);
            else
                g4_expect_equal(told, &a[i].told, "without memory", i);
            g4_session_close(a[N + i].s);
        }
        g4_batch_close(b);
        if (!has_failed) break;
    }
    G4_EXPECT(n_failed > 20, "%d sessions failed", n_failed);
    for (int i = 0; a && i < N; i++) g4_session_close(a[i].s);
    free(a);
    g4_engine_close(e);
    G4_EXPECT(failing.live == 0, "%ld blocks are left", failing.live);
}

int main(void)
{
    static const char *const paths[] = { "tests/data/text_e2b.g4",       "tests/data/text_e2b.mixed.g4",
                                         "tests/data/media/e2b-q8_0.g4", "tests/data/media/e4b.g4",
                                         "tests/data/media/26b.g4",      "tests/data/text_26b.mixed.g4",
                                         "tests/data/media/31b.g4",      "tests/data/text_gemma3.g4" };
    static const g4_batch_options options[] = {
        { .n_rows = 0 }, { .prompt_rows = 5 }, { .n_rows = 90, .prompt_rows = 40 }, { .n_rows = 3 }
    };
    static const g4_kv_choice kv[] = { G4_KV_DEFAULT, G4_KV_USE_Q8_0, G4_KV_USE_F32 };
    int n = 0;
    for (size_t p = 0; p < sizeof paths / sizeof *paths; p++)
        for (int i = 0; g4_isa_name(i) != NULL; i++)
            for (int n_threads = 1; n_threads <= 2; n_threads++, n++) {
                if (i > 0 && (n_threads > 1 || p % 3 != 1)) continue; /* mixed types, experts, Gemma 3 */
                g4_test_equal(&(g4_way) { paths[p], g4_isa_name(i), n_threads, n, kv[n % 3], options[n / 2 % 4] });
            }
    g4_engine *e = g4_open(paths[0], 2, NULL, NULL), *other = g4_open(paths[0], 1, NULL, NULL);
    if (e && other) g4_test_forks(e);
    if (e && other) g4_test_misuse(e, other);
    if (e) g4_test_removals(e);
    if (e) g4_test_cut_steps(e);
    g4_engine_close(e);
    g4_engine_close(other);
    g4_test_memory(paths[0]);
    g4_test_plan(paths[0]);
    g4_test_plan(paths[4]);
    return g4_test_end();
}
