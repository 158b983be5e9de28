/* session.c - a session is a timeline: tokens, the media among them, and the keys and values of every owning layer.
 *
 * All calls end in g4_session_run, which evaluates what has been written into the timeline but not evaluated yet, in
 * chunks that become rows of forward passes. Going back means restoring the nearest snapshot at or before a position
 * and evaluating from there, where the windows of sliding layers no longer hold what is needed. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "session.h"

#include <limits.h>

#define G4_CTX_DEFAULT 8192
#define G4_CHUNK_DEFAULT 256
#define G4_SNAPSHOT_BYTES_DEFAULT (UINT64_C(512) << 20)

/* ---- Plans ------------------------------------------------------------------------------------------- */

static int g4_plan_ctx(const g4_engine *e, const g4_session_options *opt)
{
    return opt && opt->n_ctx > 0 ? opt->n_ctx : g4_min_int(G4_CTX_DEFAULT, (int)e->file.config.max_ctx);
}

static g4_kv_type g4_plan_kv(const g4_engine *e, const g4_session_options *opt)
{
    switch (opt ? opt->kv : G4_KV_DEFAULT) {
    case G4_KV_USE_F16: return G4_KV_F16;
    case G4_KV_USE_F32: return G4_KV_F32;
    case G4_KV_USE_Q8_0: return G4_KV_Q8_0;
    default: return e->compute.reads_ints ? G4_KV_F16 : G4_KV_F32;
    }
}

static int g4_plan_chunk(const g4_engine *e, const g4_session_options *opt)
{
    return g4_min_int(opt && opt->chunk > 0 ? opt->chunk : G4_CHUNK_DEFAULT, g4_model_max_rows(&e->model));
}

void g4_session_plan(const g4_engine *e, const g4_session_options *opt, g4_memory_plan *out)
{
    memset(out, 0, sizeof *out);
    out->available = g4_available_memory();
    g4_engine_info info;
    g4_engine_get_info(e, &info);
    out->weights = info.decode_bytes;
    out->lookup = info.lookup_bytes;
    const int n_ctx = g4_plan_ctx(e, opt);
    const uint64_t vocab = e->file.config.n_vocab;
    size_t partial = 0;
    if (e->file.config.n_layers > 0) {
        out->kv = g4_kv_bytes(g4_plan_kv(e, opt), e->model.kv_shapes, e->model.n_owners, n_ctx, g4_plan_chunk(e, opt));
        partial = g4_model_partial_floats(&e->model, n_ctx);
    }
    out->work = e->work_bytes + partial * sizeof(float) + vocab * (2 * sizeof(float) + sizeof(g4_candidate)) +
                vocab / 16 * (sizeof(uint32_t) + sizeof(float)) + e->file.config.hidden * sizeof(float) +
                (uint64_t)n_ctx * sizeof(g4_token);
}

uint64_t g4_session_bytes(const g4_engine *e, const g4_session_options *opt)
{
    g4_memory_plan plan;
    g4_session_plan(e, opt, &plan);
    return plan.kv + plan.work;
}

/* ---- Opening and closing ------------------------------------------------------------------------------- */

static void g4_drop_snapshot(g4_session *s, int i)
{
    g4_snapshot *snapshot = &s->snapshots[i];
    g4_kv_snapshot_drop(&s->kv, &snapshot->kv);
    memmove(snapshot, snapshot + 1, (size_t)(s->n_snapshots - i - 1) * sizeof *snapshot);
    s->n_snapshots--;
}

void g4_session_close(g4_session *s)
{
    if (!s) return;
    const g4_engine *e = s->e;
    g4_engine_lock(e);
    while (s->n_snapshots > 0) g4_drop_snapshot(s, s->n_snapshots - 1);
    g4_kv_close(&s->kv);
    g4_engine_unlock(e);
    for (int i = 0; i < s->n_media; i++) g4_soft_release(s->media[i].soft);
    g4_free(e->a, s->snapshots);
    g4_free(e->a, s->media);
    g4_blocks_free(&s->blocks);
    g4_free(e->a, s);
}

static g4_status g4_session_check(const g4_engine *e, const g4_session_options *opt, g4_error *err)
{
    const g4_config *c = &e->file.config;
    if (c->n_layers == 0) return g4_fail(err, G4_ERR_UNSUPPORTED, "the file holds a tokenizer only");
    const int n_ctx = g4_plan_ctx(e, opt);
    if (n_ctx < 1 || n_ctx > (int)c->max_ctx)
        return g4_fail(err, G4_ERR_ARGUMENT, "context of %d tokens: this model has 1 to %u", n_ctx, c->max_ctx);
    if (opt && (opt->chunk < 0 || (unsigned)opt->kv > G4_KV_USE_Q8_0))
        return g4_fail(err, G4_ERR_ARGUMENT, "chunk %d or kv type %d", opt->chunk, (int)opt->kv);
    g4_memory_plan plan;
    g4_session_plan(e, opt, &plan);
    if (plan.available > 0 && plan.kv + plan.work > plan.available)
        return g4_fail(
            err, G4_ERR_MEMORY,
            "a context of %d tokens needs %.1f MB of memory, %.1f MB are free: choose a smaller context or kv type",
            n_ctx, (double)(plan.kv + plan.work) / 1e6, (double)plan.available / 1e6);
    return G4_OK;
}

g4_status g4_session_open(g4_session **out, g4_engine *e, const g4_session_options *opt, g4_error *err)
{
    *out = NULL;
    const g4_config *c = &e->file.config;
    const g4_status status = g4_session_check(e, opt, err);
    if (status) return status;
    g4_session *s = g4_alloc(e->a, 1, sizeof *s);
    if (!s) return g4_fail(err, G4_ERR_MEMORY, "no memory for a session");
    s->e = e;
    s->n_ctx = g4_plan_ctx(e, opt);
    s->chunk = g4_plan_chunk(e, opt);
    s->snapshot_budget = opt && opt->snapshot_bytes ? opt->snapshot_bytes : G4_SNAPSHOT_BYTES_DEFAULT;
    s->progress = opt ? opt->progress : NULL;
    s->user = opt ? opt->user : NULL;
    g4_blocks *b = &s->blocks;
    b->a = e->a;
    const size_t vocab = g4_round_up(c->n_vocab, 16), words = vocab / 32 + 1;
    s->tokens = g4_blocks_add(b, (size_t)s->n_ctx, 1, sizeof *s->tokens);
    s->state = g4_blocks_add(b, c->hidden, 1, sizeof *s->state);
    s->logits = g4_blocks_add(b, vocab, 1, sizeof *s->logits);
    s->group_max = g4_blocks_add(b, vocab / 16, 1, sizeof *s->group_max);
    s->work = g4_blocks_add(b, vocab, 1, sizeof *s->work);
    s->candidates = g4_blocks_add(b, vocab, 1, sizeof *s->candidates);
    s->mask = g4_blocks_add(b, words, 1, sizeof *s->mask);
    s->seen = g4_blocks_add(b, words, 1, sizeof *s->seen);
    const int ok = !b->failed && g4_kv_open(&s->kv, e->a, g4_plan_kv(e, opt), e->model.kv_shapes, e->model.n_owners,
                                            s->n_ctx, g4_model_partial_floats(&e->model, s->n_ctx));
    if (!ok) {
        const int n_ctx = s->n_ctx;
        g4_session_close(s);
        return g4_fail(err, G4_ERR_MEMORY, "no memory for the tables of a session of %d tokens", n_ctx);
    }
    *out = s;
    return G4_OK;
}

int g4_session_n(const g4_session *s) { return s->n; }
int g4_session_n_ctx(const g4_session *s) { return s->n_ctx; }
const g4_token *g4_session_tokens(const g4_session *s) { return s->tokens; }
uint64_t g4_session_n_evaluated(const g4_session *s) { return s->n_evaluated; }
uint64_t g4_session_n_head_rows(const g4_session *s) { return s->n_head_rows; }

/* ---- Snapshots ------------------------------------------------------------------------------------------
 *
 * With the engine's lock held. One byte budget bounds what only snapshots keep, the oldest go first; one may always
 * stay. */

static int g4_last_snapshot(const g4_session *s)
{
    return s->n_snapshots > 0 ? s->snapshots[s->n_snapshots - 1].pos : -1;
}

static g4_status g4_take_snapshot(g4_session *s, g4_error *err)
{
    if (g4_last_snapshot(s) == s->n) return G4_OK;
    if (s->n_snapshots == s->cap_snapshots) {
        const int cap = s->cap_snapshots ? 2 * s->cap_snapshots : 16;
        g4_snapshot *grown = g4_realloc(s->e->a, s->snapshots, (size_t)cap, sizeof *grown);
        if (!grown) return g4_fail(err, G4_ERR_MEMORY, "no memory for %d snapshots", cap);
        s->snapshots = grown;
        s->cap_snapshots = cap;
    }
    g4_snapshot *snapshot = &s->snapshots[s->n_snapshots];
    snapshot->pos = s->n;
    if (!g4_kv_snapshot_take(&s->kv, &snapshot->kv))
        return g4_fail(err, G4_ERR_MEMORY, "no memory for a snapshot of position %d", s->n);
    s->n_snapshots++;
    for (;;) {
        uint64_t bytes = 0;
        for (int i = 0; i < s->n_snapshots; i++) bytes += g4_kv_snapshot_bytes(&s->kv, &s->snapshots[i].kv);
        if (s->n_snapshots == 1 || bytes <= s->snapshot_budget) return G4_OK;
        g4_drop_snapshot(s, 0);
    }
}

/* Go back to snapshot i; those behind it are gone. */
static void g4_restore_snapshot(g4_session *s, int i)
{
    g4_kv_snapshot_restore(&s->kv, &s->snapshots[i].kv, s->snapshots[i].pos);
    while (s->n_snapshots > i + 1) g4_drop_snapshot(s, s->n_snapshots - 1);
    s->n = s->snapshots[i].pos;
    s->ready = G4_READY_NOTHING;
}

g4_status g4_session_mark(g4_session *s, g4_error *err)
{
    g4_engine_lock(s->e);
    const g4_status status = s->n > 0 ? g4_take_snapshot(s, err) : G4_OK;
    g4_engine_unlock(s->e);
    return status;
}

/* ---- Media in the timeline --------------------------------------------------------------------------------- */

static int g4_medium_end(const g4_medium *m) { return m->pos + m->soft->n; }

/* Does it stand in a block whose tokens see each other both ways? Pictures of the large models do. */
static int g4_two_way(const g4_config *c, const g4_medium *m)
{
    return (c->flags & G4_CONFIG_IMAGE_BIDIR) && (uint32_t)m->soft->token != c->audio_token;
}

/* The two-way block [*first, *end) that begins at medium *i or behind it; pictures without a marker between them are
 * one block. *i goes behind it; returns 0 when there is none. */
static int g4_next_block(const g4_session *s, int *i, int *first, int *end)
{
    const g4_config *c = &s->e->file.config;
    while (*i < s->n_media && !g4_two_way(c, &s->media[*i])) ++*i;
    if (*i == s->n_media) return 0;
    *first = s->media[*i].pos;
    *end = g4_medium_end(&s->media[*i]);
    for (++*i; *i < s->n_media && s->media[*i].pos == *end && g4_two_way(c, &s->media[*i]); ++*i)
        *end = g4_medium_end(&s->media[*i]);
    return 1;
}

/* The last position <= pos that does not lie inside the soft tokens of one medium. */
static int g4_outside_media(const g4_medium *media, int n, int pos)
{
    for (int i = n - 1; i >= 0; i--)
        if (media[i].pos < pos && pos < g4_medium_end(&media[i])) pos = media[i].pos;
    return pos;
}

/* Drop the media that start at position n or behind it. */
static void g4_drop_media(g4_session *s, int n)
{
    while (s->n_media > 0 && s->media[s->n_media - 1].pos >= n) g4_soft_release(s->media[--s->n_media].soft);
}

/* ---- Evaluating ------------------------------------------------------------------------------------------ */

/* End of the chunk that starts at s->n in a timeline of `end` tokens: two-way picture blocks are not split. */
static int g4_chunk_end(const g4_session *s, int end)
{
    const int start = s->n, chunk_end = g4_min_int(start + s->chunk, end);
    int i = 0, block, block_end;
    if (chunk_end == end) return end;
    while (g4_next_block(s, &i, &block, &block_end))
        if (block < chunk_end && chunk_end < block_end) return block > start ? block : block_end;
    return chunk_end;
}

/* Positions [s->n, s->n + n) as rows of a forward pass, of which the last n_wanted want logits. */
static void g4_fill_rows(g4_session *s, g4_row *rows, int n, int n_wanted)
{
    const int start = s->n, end = s->n + n;
    const size_t hidden = s->e->file.config.hidden;
    for (int i = 0; i < n; i++)
        rows[i] = (g4_row) { .kv = &s->kv,
                             .pos = start + i,
                             .token = s->tokens[start + i],
                             .last_visible = start + i,
                             .wants_logits = i >= n - n_wanted };
    for (int i = 0; i < s->n_media; i++) {
        const g4_medium *m = &s->media[i];
        for (int pos = g4_max_int(m->pos, start); pos < g4_min_int(g4_medium_end(m), end); pos++)
            rows[pos - start].soft = m->soft->rows + (size_t)(pos - m->pos) * hidden;
    }
    int i = 0, block, block_end;
    while (g4_next_block(s, &i, &block, &block_end))
        for (int pos = g4_max_int(block, start); pos < g4_min_int(block_end, end); pos++)
            rows[pos - start].last_visible = block_end - 1;
}

/* Softcapped logits of the n rows of the last pass, which begin with token `index` of this call, to the callback; those
 * of the last token stay in s->logits if this chunk is the last. */
static g4_status g4_deliver_logits(g4_session *s, const g4_wish *wish, int n, int index, int total, g4_error *err)
{
    g4_engine *e = s->e;
    const size_t vocab = g4_round_up(e->file.config.n_vocab, 16);
    for (int t = 0; t < n; t += G4_HEAD_ROWS) {
        const float *states[G4_HEAD_ROWS];
        const int rows = g4_min_int(G4_HEAD_ROWS, n - t);
        for (int i = 0; i < rows; i++) states[i] = g4_final_state(&e->model, t + i);
        g4_head(&e->model, states, rows, e->logits, vocab);
        s->n_head_rows += (uint64_t)rows * e->file.config.n_vocab;
        for (int i = 0; i < rows; i++)
            if (wish->row(wish->user, index + t + i, e->logits + (size_t)i * vocab))
                return g4_fail(err, G4_ERR_CANCELED, "stopped by the caller after %d of %d tokens", index + t + i + 1,
                               total);
        if (index + t + rows == total)
            memcpy(s->logits, e->logits + (size_t)(rows - 1) * vocab, vocab * sizeof *s->logits);
    }
    return G4_OK;
}

/* Evaluate the next chunk of positions [start, end) and give what is wished of it. */
static g4_status g4_run_chunk(g4_session *s, int start, int end, const g4_wish *wish, g4_error *err)
{
    g4_engine *e = s->e;
    const size_t hidden = e->file.config.hidden;
    const int chunk_end = g4_chunk_end(s, end), n = chunk_end - s->n, max_rows = g4_model_max_rows(&e->model);
    const int last = chunk_end == end, first_state = end - wish->n_states;
    const int n_states = g4_min_int(g4_max_int(chunk_end - first_state, 0), n); /* wished of this chunk */
    if (n > max_rows)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "a picture block of %d positions: at most %d", n, max_rows);
    if (!g4_kv_reserve(&s->kv, s->n, n))
        return g4_fail(err, G4_ERR_MEMORY, "no memory for the keys and values of positions %d to %d", s->n,
                       chunk_end - 1);
    g4_fill_rows(s, e->rows, n, wish->row ? n : wish->states ? n_states : last);
    g4_forward(&e->model, e->rows, n);
    s->n_evaluated += (uint64_t)n;
    if (wish->row) {
        const g4_status status = g4_deliver_logits(s, wish, n, s->n - start, end - start, err);
        if (status) return status;
    } else if (wish->states) {
        for (int i = n - n_states; i < n; i++)
            memcpy(wish->states + (size_t)(s->n + i - first_state) * hidden, g4_final_state(&e->model, i),
                   hidden * sizeof *wish->states);
    } else if (last) {
        g4_head_raw(&e->model, g4_final_state(&e->model, n - 1), s->logits, s->group_max);
        s->n_head_rows += e->file.config.n_vocab;
    }
    s->n = chunk_end;
    g4_kv_slide(&s->kv, s->n);
    return G4_OK;
}

/* Tell how far it has come, without the lock. */
static g4_status g4_tell_progress(g4_session *s, int start, int end, g4_error *err)
{
    const int done = s->n - start, total = end - start;
    if (!s->progress || total <= 1) return G4_OK;
    g4_engine_unlock(s->e);
    const int stop = s->progress(s->user, (uint64_t)done, (uint64_t)total);
    g4_engine_lock(s->e);
    if (!stop || s->n == end) return G4_OK;
    return g4_fail(err, G4_ERR_CANCELED, "canceled after %d of %d tokens", done, total);
}

/* Cut the timeline back to `start` after a failure. */
static void g4_undo(g4_session *s, int start, int has_snapshot)
{
    const g4_readiness ready = s->ready;
    if (has_snapshot)
        g4_restore_snapshot(s, s->n_snapshots - 1);
    else
        g4_kv_truncate(&s->kv, start);
    s->n = start;
    g4_drop_media(s, start);
    s->ready = ready;
}

g4_status g4_session_run(g4_session *s, int end, const g4_wish *wish, g4_error *err)
{
    const int start = s->n, chunked = end - start > s->chunk; /* windows may slide before it fails */
    g4_status status = G4_OK;
    int taken = 0;
    g4_engine_lock(s->e);
    if (chunked && start > 0 && g4_last_snapshot(s) != start) {
        status = g4_take_snapshot(s, err);
        taken = !status;
    }
    while (!status && s->n < end) {
        status = g4_run_chunk(s, start, end, wish, err);
        if (!status) status = g4_tell_progress(s, start, end, err);
    }
    if (status)
        g4_undo(s, start, chunked && g4_last_snapshot(s) == start);
    else
        s->ready = wish->states ? G4_READY_NOTHING : wish->row ? G4_READY_LOGITS : G4_READY_RAW;
    if (taken) g4_drop_snapshot(s, s->n_snapshots - 1);
    g4_engine_unlock(s->e);
    return status;
}

static const g4_wish g4_wish_last = { NULL, NULL, NULL, 0 };

/* ---- Logits of the last position ----------------------------------------------------------------------------- */

void g4_session_head(g4_session *s, const float *states, int n, float *logits, size_t stride)
{
    const g4_config *c = &s->e->file.config;
    const float *each[G4_HEAD_ROWS];
    for (int i = 0; i < n; i++) each[i] = states + (size_t)i * c->hidden;
    g4_engine_lock(s->e);
    g4_head(&s->e->model, each, n, logits, stride);
    s->n_head_rows += (uint64_t)n * c->n_vocab;
    g4_engine_unlock(s->e);
}

void g4_session_head_groups(g4_session *s, const int *groups, int n, float *logits)
{
    g4_engine_lock(s->e);
    g4_head_groups(&s->e->model, s->state, groups, n, logits);
    s->n_head_rows += 16 * (uint64_t)n;
    g4_engine_unlock(s->e);
}

/* The head behind the final state, or, when only keys and values are there, the last token evaluated once more: the
 * same bits. */
g4_status g4_session_need_raw(g4_session *s, g4_error *err)
{
    if (s->n == 0 || s->ready >= G4_READY_RAW) return G4_OK;
    if (s->ready == G4_READY_STATE) {
        g4_engine_lock(s->e);
        g4_head_raw(&s->e->model, s->state, s->logits, s->group_max);
        s->n_head_rows += s->e->file.config.n_vocab;
        g4_engine_unlock(s->e);
        s->ready = G4_READY_RAW;
        return G4_OK;
    }
    const int n = s->n;
    s->n = n - 1;
    const g4_status status = g4_session_run(s, n, &g4_wish_last, err);
    s->n = n;
    return status;
}

g4_status g4_session_need_logits(g4_session *s, g4_error *err)
{
    const g4_status status = g4_session_need_raw(s, err);
    if (status || s->ready != G4_READY_RAW) return status;
    g4_engine_lock(s->e);
    g4_head_softcap(&s->e->model, s->logits);
    g4_engine_unlock(s->e);
    s->ready = G4_READY_LOGITS;
    return G4_OK;
}

const float *g4_session_logits(g4_session *s)
{
    if (s->n == 0 || g4_session_need_logits(s, NULL)) return NULL;
    return s->logits;
}

/* ---- Appending ------------------------------------------------------------------------------------------- */

/* Check the part of a prompt from token `from` on; *n_media gets how many media start there. */
static g4_status g4_check_prompt(const g4_session *s, const g4_prompt *p, int from, int *n_media, g4_error *err)
{
    const g4_config *c = &s->e->file.config;
    const int n = p->n - from;
    *n_media = 0;
    if (n < 0 || (n > 0 && !p->tokens)) return g4_fail(err, G4_ERR_ARGUMENT, "%d tokens", p->n);
    if (n == 0) return G4_OK;
    if (n > s->n_ctx - s->n)
        return g4_fail(err, G4_ERR_CONTEXT, "%d tokens after %d do not fit in the context of %d", n, s->n, s->n_ctx);
    for (int i = from; i < p->n; i++)
        if (p->tokens[i] < 0 || (uint32_t)p->tokens[i] >= c->n_vocab)
            return g4_fail(err, G4_ERR_ARGUMENT, "token %d is %d: the vocabulary has ids 0 to %u", i, (int)p->tokens[i],
                           c->n_vocab - 1);
    int free_from = from;
    for (int i = 0; i < p->n_media; i++) {
        const g4_medium *m = &p->media[i];
        if (g4_medium_end(m) <= from) continue;
        if (m->pos < free_from || m->soft->n > p->n - m->pos)
            return g4_fail(err, G4_ERR_ARGUMENT, "media %d: its %d soft tokens at %d overlap or leave the prompt", i,
                           m->soft->n, m->pos);
        free_from = g4_medium_end(m);
        for (int t = m->pos; t < free_from; t++)
            if (p->tokens[t] != m->soft->token)
                return g4_fail(err, G4_ERR_ARGUMENT, "media %d: token %d is %d, expected its placeholder %d", i, t,
                               (int)p->tokens[t], (int)m->soft->token);
        ++*n_media;
    }
    return G4_OK;
}

/* Check, append and evaluate the part of a prompt from token `from` on. */
static g4_status g4_session_append(g4_session *s, const g4_prompt *p, int from, const g4_wish *wish, g4_error *err)
{
    int n_media;
    const g4_status status = g4_check_prompt(s, p, from, &n_media, err);
    if (status || p->n == from) return status;
    if (s->n_media + n_media > s->cap_media) {
        g4_medium *grown = g4_realloc(s->e->a, s->media, (size_t)s->n_media + (size_t)n_media, sizeof *grown);
        if (!grown) return g4_fail(err, G4_ERR_MEMORY, "no memory for %d media", s->n_media + n_media);
        s->media = grown;
        s->cap_media = s->n_media + n_media;
    }
    for (int i = 0; i < p->n_media; i++) {
        if (p->media[i].pos < from) continue;
        g4_soft_retain(p->media[i].soft);
        s->media[s->n_media++] = (g4_medium) { s->n + p->media[i].pos - from, p->media[i].soft };
    }
    const int n = p->n - from; /* a rewind appends its own tokens: they may overlap */
    memmove(s->tokens + s->n, p->tokens + from, (size_t)n * sizeof *s->tokens);
    return g4_session_run(s, s->n + n, wish, err);
}

g4_status g4_session_eval_prompt(g4_session *s, const g4_prompt *prompt, g4_error *err)
{
    return g4_session_append(s, prompt, 0, &g4_wish_last, err);
}

g4_status g4_session_eval(g4_session *s, const g4_token *tokens, int n, g4_error *err)
{
    const g4_prompt p = { tokens, n, NULL, 0 };
    return g4_session_append(s, &p, 0, &g4_wish_last, err);
}

g4_status g4_session_eval_all(g4_session *s, const g4_prompt *prompt, g4_logits_row_fn row, void *user, g4_error *err)
{
    const g4_wish wish = { .row = row, .user = user };
    return g4_session_append(s, prompt, 0, &wish, err);
}

g4_status g4_session_eval_text(g4_session *s, const char *text, size_t len, g4_error *err)
{
    g4_engine *e = s->e;
    const int bos = s->n == 0;
    g4_tokens ids = { NULL, 0, 0 };
    g4_token *all = NULL;
    g4_status status = g4_tokenizer_encode(&e->tokenizer, e->a, text, len ? len : strlen(text), 0, &ids, err);
    if (!status && !(all = g4_alloc(e->a, ids.n + 1, sizeof *all)))
        status = g4_fail(err, G4_ERR_MEMORY, "no memory for %zu tokens", ids.n + 1);
    if (!status) {
        const size_t n = ids.n + (size_t)bos;
        all[0] = (g4_token)e->file.config.bos;
        if (ids.n > 0) memcpy(all + bos, ids.ids, ids.n * sizeof *all);
        if (n > (size_t)s->n_ctx)
            status = g4_fail(err, G4_ERR_CONTEXT, "%zu tokens do not fit in the context of %d", n, s->n_ctx);
        else
            status = g4_session_eval(s, all, (int)n, err);
    }
    g4_free(e->a, ids.ids);
    g4_free(e->a, all);
    return status;
}

/* ---- Going back, prefix reuse, forks --------------------------------------------------------------------------- */

/* Cut the timeline to at most n positions without evaluating anything; with the lock held. Returns the position
 * reached: n itself when the windows still hold what its last token saw, else the nearest snapshot before it, else 0.
 * */
static int g4_go_back(g4_session *s, int n)
{
    n = g4_outside_media(s->media, s->n_media, n);
    if (n >= s->n) return s->n;
    while (g4_last_snapshot(s) > n) g4_drop_snapshot(s, s->n_snapshots - 1);
    const int held = g4_kv_holds(&s->kv, n);
    if (!held && s->n_snapshots > 0) {
        g4_restore_snapshot(s, s->n_snapshots - 1);
    } else {
        s->n = held ? n : 0;
        g4_kv_truncate(&s->kv, s->n);
        s->ready = G4_READY_NOTHING;
    }
    g4_drop_media(s, s->n);
    return s->n;
}

/* Positions at which timeline and prompt agree: ids, and for soft tokens the same media at the same place; none ends
 * inside a medium. */
static int g4_common_prefix(const g4_session *s, const g4_prompt *p)
{
    int n = 0;
    while (n < s->n && n < p->n && s->tokens[n] == p->tokens[n]) n++;
    for (int i = 0; i < s->n_media || i < p->n_media; i++) {
        const g4_medium *a = i < s->n_media ? &s->media[i] : NULL, *b = i < p->n_media ? &p->media[i] : NULL;
        if (a && b && a->pos == b->pos && a->soft->n == b->soft->n &&
            memcmp(a->soft->key, b->soft->key, sizeof a->soft->key) == 0)
            continue;
        n = g4_min_int(n, g4_min_int(a ? a->pos : INT_MAX, b ? b->pos : INT_MAX));
        break;
    }
    return g4_outside_media(p->media, p->n_media, n);
}

g4_status g4_session_sync(g4_session *s, const g4_prompt *prompt, int *reused, g4_error *err)
{
    if (reused) *reused = 0;
    if (prompt->n > s->n_ctx)
        return g4_fail(err, G4_ERR_CONTEXT, "a prompt of %d tokens does not fit in the context of %d", prompt->n,
                       s->n_ctx);
    g4_engine_lock(s->e);
    const int from = g4_go_back(s, g4_common_prefix(s, prompt));
    g4_engine_unlock(s->e);
    const uint64_t before = s->n_evaluated;
    const g4_status status =
        from < prompt->n ? g4_session_append(s, prompt, from, &g4_wish_last, err) : g4_session_need_raw(s, err);
    if (reused && !status) *reused = prompt->n - (int)(s->n_evaluated - before);
    return status;
}

g4_status g4_session_rewind(g4_session *s, int n, g4_error *err)
{
    if (n < 0 || n > s->n)
        return g4_fail(err, G4_ERR_ARGUMENT, "cannot go back to %d: the timeline has %d tokens", n, s->n);
    n = g4_outside_media(s->media, s->n_media, n);
    /* What lies between the position reached and n is evaluated again: its media must outlive the cut. */
    int n_media = 0;
    while (n_media < s->n_media && g4_medium_end(&s->media[n_media]) <= n) n_media++;
    g4_medium *media = n_media ? g4_alloc(s->e->a, (size_t)n_media, sizeof *media) : NULL;
    if (n_media && !media) return g4_fail(err, G4_ERR_MEMORY, "no memory for %d media", n_media);
    for (int i = 0; i < n_media; i++) {
        media[i] = s->media[i];
        g4_soft_retain(media[i].soft);
    }
    g4_engine_lock(s->e);
    const int from = g4_go_back(s, n);
    g4_engine_unlock(s->e);
    const g4_prompt p = { s->tokens, n, media, n_media };
    const g4_status status =
        from < n ? g4_session_append(s, &p, from, &g4_wish_last, err) : g4_session_need_raw(s, err);
    for (int i = 0; i < n_media; i++) g4_soft_release(media[i].soft);
    g4_free(s->e->a, media);
    return status;
}

static g4_session_options g4_options_of(const g4_session *s)
{
    static const g4_kv_choice choice[] = {
        [G4_KV_F16] = G4_KV_USE_F16, [G4_KV_F32] = G4_KV_USE_F32, [G4_KV_Q8_0] = G4_KV_USE_Q8_0
    };
    return (g4_session_options) { s->n_ctx, choice[s->kv.type], s->chunk, s->snapshot_budget, s->progress, s->user };
}

g4_status g4_session_fork(g4_session **out, const g4_session *s, g4_error *err)
{
    g4_engine *e = s->e;
    const g4_config *c = &e->file.config;
    const g4_session_options opt = g4_options_of(s);
    g4_status status = g4_session_open(out, e, &opt, err);
    if (status) return status;
    g4_session *f = *out;
    f->media = s->n_media ? g4_alloc(e->a, (size_t)s->n_media, sizeof *f->media) : NULL;
    if (s->n_media && !f->media) {
        g4_session_close(f);
        *out = NULL;
        return g4_fail(err, G4_ERR_MEMORY, "no memory for %d media", s->n_media);
    }
    f->cap_media = s->n_media;
    for (; f->n_media < s->n_media; f->n_media++) {
        f->media[f->n_media] = s->media[f->n_media];
        g4_soft_retain(f->media[f->n_media].soft);
    }
    memcpy(f->tokens, s->tokens, (size_t)s->n * sizeof *f->tokens);
    memcpy(f->logits, s->logits, c->n_vocab * sizeof *f->logits);
    memcpy(f->group_max, s->group_max, (c->n_vocab + 15) / 16 * sizeof *f->group_max);
    memcpy(f->state, s->state, c->hidden * sizeof *f->state);
    f->ready = s->ready;
    f->n = s->n;
    g4_engine_lock(e);
    g4_kv_fork(&f->kv, &s->kv);
    g4_engine_unlock(e);
    return G4_OK;
}
