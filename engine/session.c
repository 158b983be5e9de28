/* session.c - sessions: what they need, opening and closing, and the public calls on them, each of which is let in,
 * does its work on the timeline (timeline.c) and goes out again. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "session.h"

#define G4_CTX_DEFAULT 8192
#define G4_CHUNK_DEFAULT 256
#define G4_SNAPSHOT_BYTES_DEFAULT (UINT64_C(512) << 20)

/* ---- Plans ------------------------------------------------------------------------------------------- */

static int g4_plan_ctx(const g4_engine *e, const g4_session_options *opt)
{
    return opt && opt->n_ctx ? opt->n_ctx : g4_min_int(G4_CTX_DEFAULT, (int)e->file.config.max_ctx);
}

static g4_kv_type g4_plan_kv(const g4_engine *e, const g4_session_options *opt)
{
    switch (opt ? opt->kv : G4_KV_DEFAULT) {
    case G4_KV_USE_F16: return G4_KV_F16;
    case G4_KV_USE_F32: return G4_KV_F32;
    case G4_KV_USE_Q8_0: return G4_KV_Q8_0;
    default: return e->is_f32 ? G4_KV_F32 : G4_KV_F16;
    }
}

static int g4_plan_chunk(const g4_engine *e, const g4_session_options *opt)
{
    return g4_min_int(opt && opt->chunk > 0 ? opt->chunk : G4_CHUNK_DEFAULT, g4_model_max_rows(&e->model));
}

/* The blocks of fixed size of a session of n_ctx positions. */
static void g4_session_add_blocks(g4_session *s, g4_blocks *b, const g4_engine *e, int n_ctx)
{
    const size_t vocab = g4_round_up(e->file.config.n_vocab, 16), hidden = e->file.config.hidden;
    const size_t words = vocab / 32 + 1;
    s->tokens = g4_blocks_add(b, (size_t)n_ctx, 1, sizeof *s->tokens);
    s->state = g4_blocks_add(b, hidden, 1, sizeof *s->state);
    s->logits = g4_blocks_add(b, vocab, 1, sizeof *s->logits);
    s->group_max = g4_blocks_add(b, vocab / 16, 1, sizeof *s->group_max);
    s->work = g4_blocks_add(b, vocab, 1, sizeof *s->work);
    s->candidates = g4_blocks_add(b, vocab, 1, sizeof *s->candidates);
    s->mask = g4_blocks_add(b, words, 1, sizeof *s->mask);
    s->seen = g4_blocks_add(b, words, 1, sizeof *s->seen);
    s->guessed_states = g4_blocks_add(b, G4_HEAD_ROWS, hidden, sizeof *s->guessed_states);
    s->guessed_logits = g4_blocks_add(b, G4_HEAD_ROWS, vocab, sizeof *s->guessed_logits);
}

void g4_session_plan(const g4_engine *e, const g4_session_options *opt, g4_memory_plan *out)
{
    g4_session_plan_forks(e, opt, 1, 0, out);
}

void g4_session_plan_forks(const g4_engine *e, const g4_session_options *opt, int n, int n_before, g4_memory_plan *out)
{
    if (!out) return;
    *out = (g4_memory_plan) { 0 };
    if (!e) return;
    out->available = g4_available_memory();
    g4_engine_info info;
    g4_engine_get_info(e, &info);
    out->weights = info.decode_bytes;
    out->lookup = info.lookup_bytes;
    out->shared = e->work_bytes;
    const g4_config *c = &e->file.config;
    const int n_ctx = g4_plan_ctx(e, opt);
    if (c->n_layers == 0 || n_ctx < 1 || (uint32_t)n_ctx > c->max_ctx) return;
    if (n < 1 || n_before < 0 || n_before > n_ctx) return;
    /* Where pictures see themselves both ways, a chunk may be one whole. */
    const int chunk =
        c->flags & G4_CONFIG_IMAGE_BIDIR && c->v_layers ? g4_model_max_rows(&e->model) : g4_plan_chunk(e, opt);
    g4_session counted;
    g4_blocks blocks = { .only_counts = 1 };
    g4_session_add_blocks(&counted, &blocks, e, n_ctx);
    const g4_kv_type kv = g4_plan_kv(e, opt);
    const int shared = n > 1 ? n_before / G4_PAGE * G4_PAGE : 0; /* a page that is not full becomes each fork's own */
    out->kv = (uint64_t)n * g4_kv_bytes(kv, e->model.kv_shapes, e->model.n_owners, n_ctx - shared, chunk);
    if (shared > 0) out->kv += g4_kv_bytes(kv, e->model.kv_shapes, e->model.n_owners, shared, chunk);
    out->work = (uint64_t)n * (blocks.bytes + g4_model_partial_floats(&e->model, n_ctx) * sizeof(float));
}

uint64_t g4_session_bytes(const g4_engine *e, const g4_session_options *opt)
{
    g4_memory_plan plan;
    g4_session_plan(e, opt, &plan);
    return plan.kv + plan.work;
}

/* ---- Opening and closing ------------------------------------------------------------------------------- */

void g4_session_close(g4_session *s)
{
    if (!s) return;
    /* Not while a call is in, which would go on in freed memory; in a child made by fork() it cannot go on. */
    if (atomic_load(&s->gate->busy) && g4_pool_is_ours(s->e->compute.pool)) return;
    g4_engine *e = s->e;
    g4_timeline_clear(s);
    g4_kv_close(&s->kv);
    g4_free(e->a, s->snapshots);
    g4_free(e->a, s->media);
    g4_blocks_free(&s->blocks);
    g4_free(e->a, s);
    atomic_fetch_sub(&e->n_sessions, 1);
}

/* Can there be such a session? held: bytes of its pages that are in memory already, those of the one it forks. */
static g4_status g4_session_check(const g4_engine *e, const g4_session_options *opt, uint64_t held, g4_error *err)
{
    const g4_status status = g4_engine_check(e, err);
    if (status) return status;
    const g4_config *c = &e->file.config;
    if (c->n_layers == 0) return g4_fail(err, G4_ERR_UNSUPPORTED, "the file holds a tokenizer only");
    const int n_ctx = g4_plan_ctx(e, opt);
    if (n_ctx < 1 || n_ctx > (int)c->max_ctx)
        return g4_fail(err, G4_ERR_ARGUMENT, "context of %d tokens: this model has 1 to %u", n_ctx, c->max_ctx);
    if (opt && (opt->chunk < 0 || (unsigned)opt->kv > G4_KV_USE_Q8_0))
        return g4_fail(err, G4_ERR_ARGUMENT, "chunk %d or kv type %d", opt->chunk, (int)opt->kv);
    g4_memory_plan plan;
    g4_session_plan(e, opt, &plan);
    const uint64_t shared = atomic_load(&e->n_sessions) == 0 ? plan.shared : 0;
    const uint64_t needed = plan.work + shared + (plan.kv > held ? plan.kv - held : 0);
    if (plan.available > 0 && needed > plan.available)
        return g4_fail(
            err, G4_ERR_MEMORY,
            "a context of %d tokens needs %.1f MB of memory, %.1f MB are free: choose a smaller context or kv type",
            n_ctx, (double)needed / 1e6, (double)plan.available / 1e6);
    return G4_OK;
}

static g4_status g4_session_make(g4_session **out, g4_engine *e, const g4_session_options *opt, uint64_t held,
                                 g4_error *err)
{
    const g4_status status = g4_session_check(e, opt, held, err);
    if (status) return status;
    g4_session *s = g4_alloc(e->a, 1, sizeof *s);
    if (!s) return g4_fail(err, G4_ERR_MEMORY, "no memory for a session");
    atomic_fetch_add(&e->n_sessions, 1);
    s->e = e;
    s->n_ctx = g4_plan_ctx(e, opt);
    s->chunk = g4_plan_chunk(e, opt);
    s->gate = &s->own_gate;
    s->snapshot_budget = opt && opt->snapshot_bytes ? opt->snapshot_bytes : G4_SNAPSHOT_BYTES_DEFAULT;
    if (opt) {
        s->progress = opt->progress;
        s->user = opt->user;
        s->limits = opt->limits;
        if (opt->taps) s->taps = *opt->taps;
    }
    s->blocks.a = e->a;
    g4_session_add_blocks(s, &s->blocks, e, s->n_ctx);
    const int ok =
        !s->blocks.failed && g4_kv_open(&s->kv, e->a, g4_plan_kv(e, opt), e->model.kv_shapes, e->model.n_owners,
                                        s->n_ctx, g4_model_partial_floats(&e->model, s->n_ctx));
    if (!ok) {
        const int n_ctx = s->n_ctx;
        g4_session_close(s);
        return g4_fail(err, G4_ERR_MEMORY, "no memory for the tables of a session of %d tokens", n_ctx);
    }
    *out = s;
    return G4_OK;
}

g4_status g4_session_open(g4_session **out, g4_engine *e, const g4_session_options *opt, g4_error *err)
{
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    return g4_session_make(out, e, opt, 0, err);
}

int g4_session_n(const g4_session *s) { return s ? s->n : 0; }
int g4_session_n_ctx(const g4_session *s) { return s ? s->n_ctx : 0; }
const g4_token *g4_session_tokens(const g4_session *s) { return s ? s->tokens : NULL; }
uint64_t g4_session_n_evaluated(const g4_session *s) { return s ? s->n_evaluated : 0; }

/* ---- One call at a time ---------------------------------------------------------------------------------- */

g4_status g4_call_begin(g4_call *call, const g4_session *s, const g4_limits *more, g4_error *err)
{
    call->gate = NULL;
    if (!s) return g4_fail(err, G4_ERR_ARGUMENT, "session is NULL");
    const g4_status status = g4_engine_check(s->e, err);
    if (status) return status;
    if (atomic_exchange(&s->gate->busy, 1))
        return g4_fail(err, G4_ERR_ARGUMENT,
                       "this session is in a call already: another thread's, or the one whose callback this is");
    call->gate = s->gate;
    call->gate->halt = &call->halt;
    g4_halt_open(&call->halt);
    g4_halt_add_flag(&call->halt, &s->gate->canceled);
    g4_halt_add(&call->halt, &s->limits);
    g4_halt_add(&call->halt, more);
    return g4_halt_check(&call->halt, err);
}

g4_status g4_call_end(g4_call *call, g4_status status)
{
    if (!call->gate) return status;
    g4_cancel_clear(&call->gate->canceled); /* it was for this call, which may have ended by itself */
    call->gate->halt = NULL;
    atomic_store(&call->gate->busy, 0);
    return status;
}

void g4_session_cancel(g4_session *s)
{
    if (s) g4_cancel_set(&s->gate->canceled);
}

/* ---- Calls ------------------------------------------------------------------------------------------------ */

g4_status g4_session_eval_prompt(g4_session *s, const g4_prompt *prompt, g4_error *err)
{
    g4_call call;
    g4_status status = g4_call_begin(&call, s, NULL, err);
    if (!status) status = g4_timeline_append(s, prompt, NULL, err);
    return g4_call_end(&call, status);
}

g4_status g4_session_eval(g4_session *s, const g4_token *tokens, int n, g4_error *err)
{
    return g4_session_eval_prompt(s, &(g4_prompt) { .tokens = tokens, .n = n }, err);
}

g4_status g4_session_eval_all(g4_session *s, const g4_prompt *prompt, g4_logits_row_fn row, void *user, g4_error *err)
{
    const g4_wish wish = { .row = row, .user = user, .is_prompt = 1 };
    g4_call call;
    g4_status status = g4_call_begin(&call, s, NULL, err);
    if (!status && !row) status = g4_fail(err, G4_ERR_ARGUMENT, "row is NULL");
    if (!status) status = g4_timeline_append(s, prompt, &wish, err);
    return g4_call_end(&call, status);
}

/* The tokens of text, behind BOS where the timeline is empty, into ids. */
static g4_status g4_text_tokens(const g4_session *s, const char *text, size_t len, g4_tokens *ids, g4_error *err)
{
    const g4_engine *e = s->e;
    g4_tokens plain = { NULL, 0, 0 };
    if (!text) return g4_fail(err, G4_ERR_ARGUMENT, "text is NULL");
    g4_status status =
        g4_tokenizer_encode(&e->tokenizer, e->a, text, len ? len : strlen(text), 0, &plain, s->gate->halt, err);
    const size_t bos = s->n == 0, n = plain.n + bos;
    if (!status && n > (size_t)(s->n_ctx - s->n))
        status = g4_fail(err, G4_ERR_CONTEXT, "%zu tokens after %d do not fit in the context of %d", n, s->n, s->n_ctx);
    if (!status && !(ids->ids = g4_alloc(e->a, n + 1, sizeof *ids->ids)))
        status = g4_fail(err, G4_ERR_MEMORY, "no memory for %zu tokens", n);
    if (!status) {
        ids->n = n;
        ids->ids[0] = (g4_token)e->file.config.bos;
        if (plain.n > 0) memcpy(ids->ids + bos, plain.ids, plain.n * sizeof *ids->ids);
    }
    g4_free(e->a, plain.ids);
    return status;
}

g4_status g4_session_eval_text(g4_session *s, const char *text, size_t len, g4_error *err)
{
    g4_call call;
    g4_tokens ids = { NULL, 0, 0 };
    g4_status status = g4_call_begin(&call, s, NULL, err);
    if (!status) status = g4_text_tokens(s, text, len, &ids, err);
    if (!status) status = g4_timeline_append(s, &(g4_prompt) { .tokens = ids.ids, .n = (int)ids.n }, NULL, err);
    if (call.gate) g4_free(s->e->a, ids.ids);
    return g4_call_end(&call, status);
}

const float *g4_session_logits(g4_session *s)
{
    g4_call call;
    g4_status status = g4_call_begin(&call, s, NULL, NULL);
    if (!status) status = g4_timeline_need_logits(s, NULL);
    return g4_call_end(&call, status) || s->n == 0 ? NULL : s->logits;
}

g4_status g4_session_sync(g4_session *s, const g4_prompt *prompt, int *reused, g4_error *err)
{
    g4_call call;
    if (reused) *reused = 0;
    g4_status status = g4_call_begin(&call, s, NULL, err);
    if (!status) status = g4_timeline_sync(s, prompt, reused, err);
    return g4_call_end(&call, status);
}

g4_status g4_session_rewind(g4_session *s, int n, g4_error *err)
{
    g4_call call;
    g4_status status = g4_call_begin(&call, s, NULL, err);
    if (!status) status = g4_timeline_rewind(s, n, err);
    return g4_call_end(&call, status);
}

g4_status g4_session_mark(g4_session *s, g4_error *err)
{
    g4_call call;
    g4_status status = g4_call_begin(&call, s, NULL, err);
    if (!status) status = g4_timeline_mark(s, err);
    return g4_call_end(&call, status);
}

/* ---- Forks ------------------------------------------------------------------------------------------------- */

static g4_session_options g4_options_of(const g4_session *s)
{
    static const g4_kv_choice choice[] = {
        [G4_KV_F16] = G4_KV_USE_F16, [G4_KV_F32] = G4_KV_USE_F32, [G4_KV_Q8_0] = G4_KV_USE_Q8_0
    };
    return (g4_session_options) { .n_ctx = s->n_ctx,
                                  .kv = choice[s->kv.type],
                                  .chunk = s->chunk,
                                  .snapshot_bytes = s->snapshot_budget,
                                  .progress = s->progress,
                                  .user = s->user,
                                  .limits = s->limits,
                                  .taps = &s->taps };
}

g4_status g4_fork_make(g4_session **out, const g4_session *s, g4_error *err)
{
    g4_engine *e = s->e;
    const size_t vocab = g4_round_up(e->file.config.n_vocab, 16);
    const g4_session_options opt = g4_options_of(s);
    g4_session *f;
    const g4_status status = g4_session_make(&f, e, &opt, g4_kv_held(&s->kv), err);
    if (status) return status;
    f->media = s->n_media ? g4_alloc(e->a, (size_t)s->n_media, sizeof *f->media) : NULL;
    if (s->n_media && !f->media) {
        g4_session_close(f);
        return g4_fail(err, G4_ERR_MEMORY, "no memory for %d media", s->n_media);
    }
    f->cap_media = s->n_media;
    for (; f->n_media < s->n_media; f->n_media++) {
        f->media[f->n_media] = s->media[f->n_media];
        g4_soft_retain(f->media[f->n_media].soft);
    }
    memcpy(f->tokens, s->tokens, (size_t)s->n * sizeof *f->tokens);
    memcpy(f->logits, s->logits, vocab * sizeof *f->logits);
    memcpy(f->group_max, s->group_max, vocab / 16 * sizeof *f->group_max);
    memcpy(f->state, s->state, e->file.config.hidden * sizeof *f->state);
    f->ready = s->ready;
    f->n = s->n;
    g4_kv_fork(&f->kv, &s->kv);
    const g4_status marked = g4_timeline_copy_marks(f, s, err);
    if (marked) {
        g4_session_close(f);
        return marked;
    }
    *out = f;
    return G4_OK;
}

g4_status g4_session_fork(g4_session **out, const g4_session *s, g4_error *err)
{
    g4_call call;
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    g4_status status = g4_call_begin(&call, s, NULL, err);
    if (!status) status = g4_fork_make(out, s, err);
    return g4_call_end(&call, status);
}
