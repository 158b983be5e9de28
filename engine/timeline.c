/* timeline.c - what a session holds: tokens, the media among them, keys and values of every owning layer, snapshots.
 *
 * g4_timeline_run evaluates what has been written into the timeline but not evaluated yet, in chunks that become rows
 * of forward passes. Going back means restoring the nearest snapshot at or before a position and evaluating from there,
 * where the windows of sliding layers no longer hold what is needed. What replaces a part of the timeline takes a
 * checkpoint before, so that a failure leaves everything as it was. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "session.h"

#include <limits.h>

/* ---- Snapshots ------------------------------------------------------------------------------------------
 *
 * One byte budget bounds what only snapshots keep, the oldest go first; one may always stay. */

static void g4_snapshot_release(const g4_session *s, g4_snapshot *snapshot)
{
    if (--snapshot->refs > 0) return;
    g4_kv_snapshot_drop(&s->kv, &snapshot->kv);
    g4_free(s->e->a, snapshot);
}

static void g4_drop_snapshot(g4_session *s, int i)
{
    g4_snapshot_release(s, s->snapshots[i]);
    memmove(s->snapshots + i, s->snapshots + i + 1, (size_t)(s->n_snapshots - i - 1) * sizeof *s->snapshots);
    s->n_snapshots--;
}

static int g4_last_snapshot(const g4_session *s)
{
    return s->n_snapshots > 0 ? s->snapshots[s->n_snapshots - 1]->pos : -1;
}

static void g4_trim_snapshots(g4_session *s)
{
    for (; s->n_snapshots > 1; g4_drop_snapshot(s, 0)) {
        uint64_t bytes = 0;
        for (int i = 0; i < s->n_snapshots; i++) bytes += g4_kv_snapshot_bytes(&s->kv, &s->snapshots[i]->kv);
        if (bytes <= s->snapshot_budget) return;
    }
}

g4_status g4_timeline_mark(g4_session *s, g4_error *err)
{
    if (s->n == 0 || g4_last_snapshot(s) == s->n) return G4_OK;
    g4_snapshot **grown = g4_array_grow(s->e->a, s->snapshots, s->n_snapshots, &s->cap_snapshots, sizeof *s->snapshots);
    if (grown) s->snapshots = grown;
    g4_snapshot *snapshot = grown ? g4_alloc(s->e->a, 1, sizeof *snapshot) : NULL;
    if (!snapshot || !g4_kv_snapshot_take(&s->kv, &snapshot->kv)) {
        g4_free(s->e->a, snapshot);
        return g4_fail(err, G4_ERR_MEMORY, "no memory for a snapshot of position %d", s->n);
    }
    snapshot->refs = 1;
    snapshot->pos = s->n;
    s->snapshots[s->n_snapshots++] = snapshot;
    g4_trim_snapshots(s);
    return G4_OK;
}

g4_status g4_timeline_copy_marks(g4_session *s, const g4_session *from, g4_error *err)
{
    const size_t n = (size_t)from->n_snapshots;
    s->snapshots = n > 0 ? g4_alloc(s->e->a, n, sizeof *s->snapshots) : NULL;
    s->cap_snapshots = s->snapshots ? from->n_snapshots : 0;
    for (int i = 0; i < s->cap_snapshots; i++) {
        g4_snapshot *copy = g4_alloc(s->e->a, 1, sizeof *copy);
        if (!copy || !g4_kv_snapshot_copy(&s->kv, &from->snapshots[i]->kv, &copy->kv)) {
            g4_free(s->e->a, copy);
            break;
        }
        copy->refs = 1;
        copy->pos = from->snapshots[i]->pos;
        g4_kv_snapshot_protect(&s->kv, &copy->kv, copy->pos); /* each may go back there, and write what follows */
        s->snapshots[s->n_snapshots++] = copy;
    }
    if (s->n_snapshots == from->n_snapshots) return G4_OK;
    return g4_fail(err, G4_ERR_MEMORY, "no memory for %d snapshots", from->n_snapshots);
}

/* Go back to the last snapshot. */
static void g4_restore_last(g4_session *s)
{
    const g4_snapshot *last = s->snapshots[s->n_snapshots - 1];
    g4_kv_snapshot_restore(&s->kv, &last->kv, last->pos);
    s->n = last->pos;
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

/* The last position <= pos that is neither inside the soft tokens of one medium nor between two that see each other. */
static int g4_outside_media(const g4_config *c, const g4_medium *media, int n, int pos)
{
    for (int i = n - 1; i >= 0; i--) {
        const int end = g4_medium_end(&media[i]), joined = i + 1 < n && media[i + 1].pos == end &&
                                                           g4_two_way(c, &media[i]) && g4_two_way(c, &media[i + 1]);
        if (media[i].pos < pos && (pos < end || (pos == end && joined))) pos = media[i].pos;
    }
    return pos;
}

int g4_timeline_outside_media(const g4_session *s, int n)
{
    return g4_outside_media(&s->e->file.config, s->media, s->n_media, n);
}

/* Drop the media that start at position n or behind it. */
static void g4_drop_media(g4_session *s, int n)
{
    while (s->n_media > 0 && s->media[s->n_media - 1].pos >= n) g4_soft_release(s->media[--s->n_media].soft);
}

void g4_timeline_clear(g4_session *s)
{
    while (s->n_snapshots > 0) g4_drop_snapshot(s, s->n_snapshots - 1);
    g4_drop_media(s, 0);
}

/* ---- Evaluating ------------------------------------------------------------------------------------------ */

/* End of the chunk of at most `max` positions that starts at s->n in a timeline of `end` tokens: two-way picture blocks
 * are not split. */
static int g4_chunk_end(const g4_session *s, int max, int end)
{
    const int start = s->n, chunk_end = g4_min_int(start + max, end);
    int i = 0, block, block_end;
    if (chunk_end == end) return end;
    while (g4_next_block(s, &i, &block, &block_end))
        if (block < chunk_end && chunk_end < block_end) return block > start ? block : block_end;
    return chunk_end;
}

/* How many of the next n positions have their final states or logits wished for: the last ones. */
static int g4_stretch_wished(const g4_stretch *r, int n)
{
    const int end = r->s->n + n;
    if (r->wish.row) return n;
    return g4_min_int(g4_max_int(end - (r->end - (r->wish.states ? r->wish.n_states : 1)), 0), n);
}

void g4_stretch_fill(const g4_stretch *r, g4_row *rows, int n)
{
    g4_session *s = r->s;
    const int start = s->n, end = s->n + n, n_wanted = g4_taps_given(&s->taps) ? n : g4_stretch_wished(r, n);
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

void g4_stretch_keep(const g4_stretch *r, int n, int first)
{
    const g4_session *s = r->s;
    const size_t hidden = s->e->file.config.hidden;
    const int n_wished = g4_stretch_wished(r, n);
    float *states = r->wish.row ? r->room.states
                                : r->wish.states + (size_t)(s->n + n - n_wished - (r->end - r->wish.n_states)) * hidden;
    for (int i = 0; i < n_wished; i++)
        memcpy(states + (size_t)i * hidden, g4_final_state(&s->e->model, first + n - n_wished + i),
               hidden * sizeof *states);
}

static g4_status g4_row_room_open(g4_row_room *r, const g4_session *s, int n, g4_error *err)
{
    const g4_config *c = &s->e->file.config;
    *r = (g4_row_room) { .blocks = { .a = s->e->a } };
    r->states =
        g4_blocks_add(&r->blocks, (size_t)g4_min_int(n, g4_model_max_rows(&s->e->model)), c->hidden, sizeof *r->states);
    r->logits = g4_blocks_add(&r->blocks, G4_HEAD_ROWS, g4_round_up(c->n_vocab, 16), sizeof *r->logits);
    return r->blocks.failed ? g4_fail(err, G4_ERR_MEMORY, "no memory for the logits of %d tokens", n) : G4_OK;
}

/* Softcapped logits behind the states of the next n positions to the callback, which may use the engine; those of the
 * last position stay in s->logits. */
static g4_status g4_deliver_logits(g4_stretch *r, int n, g4_error *err)
{
    g4_session *s = r->s;
    const g4_config *c = &s->e->file.config;
    const g4_row_room *room = &r->room;
    const size_t vocab = g4_round_up(c->n_vocab, 16);
    const int index = s->n - r->start, total = r->end - r->start;
    for (int t = 0; t < n; t += G4_HEAD_ROWS) {
        const int rows = g4_min_int(G4_HEAD_ROWS, n - t);
        const g4_status status =
            g4_timeline_head(s, room->states + (size_t)t * c->hidden, rows, room->logits, vocab, err);
        if (status) return status;
        for (int i = 0; i < rows; i++)
            if (r->wish.row(r->wish.user, index + t + i, room->logits + (size_t)i * vocab))
                return g4_fail(err, G4_ERR_CANCELED, "stopped by the caller after %d of %d tokens", index + t + i + 1,
                               total);
        if (index + t + rows == total)
            memcpy(s->logits, room->logits + (size_t)(rows - 1) * vocab, vocab * sizeof *s->logits);
    }
    return G4_OK;
}

/* A forward pass over the next n positions, whose pages are there: keys, values, and what is wished of it. */
static g4_status g4_pass_chunk(g4_stretch *r, int n, g4_error *err)
{
    g4_session *s = r->s;
    g4_engine *e = s->e;
    g4_status status = g4_engine_enter(e, s->gate->halt, err);
    if (status) return status;
    const g4_taps *taps = g4_taps_given(&s->taps);
    g4_stretch_fill(r, e->rows, n);
    e->compute.watch = taps && taps->inputs ? taps : NULL;
    g4_forward(&e->model, e->rows, n, taps);
    if (taps) g4_tap_head(&e->model, s->guessed_logits, g4_round_up(e->file.config.n_vocab, 16)); /* nobody guesses */
    e->compute.watch = NULL;
    status = g4_halt_check(s->gate->halt, err);
    if (!status && (r->wish.states || r->wish.row)) {
        g4_stretch_keep(r, n, 0);
    } else if (!status && s->n + n == r->end) {
        s->ready = G4_READY_NOTHING;
        g4_head_raw(&e->model, g4_final_state(&e->model, n - 1), s->logits, s->group_max);
        s->n_head_rows += e->file.config.n_vocab;
        status = g4_halt_check(s->gate->halt, err);
    }
    g4_engine_unlock(e);
    return status;
}

g4_status g4_stretch_next(const g4_stretch *r, int max, int *n, g4_error *err)
{
    g4_session *s = r->s;
    const int chunk_end = g4_chunk_end(s, max, r->end), max_rows = g4_model_max_rows(&s->e->model);
    *n = chunk_end - s->n;
    if (*n > max_rows)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "a picture block of %d positions: at most %d", *n, max_rows);
    if (!g4_kv_reserve(&s->kv, s->n, *n))
        return g4_fail(err, G4_ERR_MEMORY, "no memory for the keys and values of positions %d to %d", s->n,
                       chunk_end - 1);
    return G4_OK;
}

g4_status g4_stretch_advance(g4_stretch *r, int n, g4_error *err)
{
    g4_session *s = r->s;
    s->n_evaluated += (uint64_t)n;
    s->n += n;
    g4_kv_slide(&s->kv, s->n);
    const int done = s->n - r->start, total = r->end - r->start;
    if (!r->wish.is_prompt || !s->progress || total <= 1) return G4_OK;
    if (!s->progress(s->user, (uint64_t)done, (uint64_t)total) || s->n == r->end) return G4_OK;
    return g4_fail(err, G4_ERR_CANCELED, "canceled after %d of %d tokens", done, total);
}

/* Evaluate the next chunk and give what is wished of it. */
static g4_status g4_stretch_chunk(g4_stretch *r, g4_error *err)
{
    int n;
    g4_status status = g4_stretch_next(r, r->s->chunk, &n, err);
    if (!status) status = g4_pass_chunk(r, n, err);
    if (!status && r->wish.row) status = g4_deliver_logits(r, n, err);
    return status ? status : g4_stretch_advance(r, n, err);
}

/* Of what was evaluated before the call was cancelled, keep all up to the medium it ended in, if the windows still hold
 * what was there; returns 0 if not. */
static int g4_keep_progress(g4_session *s, int start)
{
    const int n = g4_outside_media(&s->e->file.config, s->media, s->n_media, s->n);
    g4_kv_truncate(&s->kv, s->n);
    if (n <= start || (n < s->n && !g4_kv_holds(&s->kv, n))) return 0;
    g4_kv_truncate(&s->kv, n);
    s->n = n;
    s->ready = G4_READY_NOTHING;
    return 1;
}

g4_status g4_stretch_begin(g4_stretch *r, g4_session *s, int end, const g4_wish *wish, g4_error *err)
{
    *r = (g4_stretch) { .s = s, .wish = *wish, .start = s->n, .end = end, .held = s->kv.caches[0].end * G4_PAGE };
    const int slides = r->start > 0 && end - r->start > s->chunk; /* windows may leave their pages behind */
    const g4_status status = wish->row ? g4_row_room_open(&r->room, s, end - r->start, err) : G4_OK;
    if (!status && slides && !g4_kv_snapshot_take(&s->kv, &r->before))
        return g4_fail(err, G4_ERR_MEMORY, "no memory for a snapshot of position %d", r->start);
    return status;
}

g4_status g4_stretch_end(g4_stretch *r, g4_status status)
{
    g4_session *s = r->s;
    if (!status) {
        s->ready = r->wish.states ? G4_READY_NOTHING : r->wish.row ? G4_READY_LOGITS : G4_READY_RAW;
    } else if (status != G4_ERR_CANCELED || !r->wish.keep || !g4_keep_progress(s, r->start)) {
        if (r->before.first)
            g4_kv_snapshot_restore(&s->kv, &r->before, r->start);
        else
            g4_kv_truncate(&s->kv, r->held);
        s->n = r->start;
    }
    if (r->before.first) g4_kv_snapshot_drop(&s->kv, &r->before);
    g4_blocks_free(&r->room.blocks);
    return status;
}

g4_status g4_stretch_all(g4_stretch *r, g4_error *err)
{
    g4_status status = G4_OK;
    while (!status && r->s->n < r->end) status = g4_stretch_chunk(r, err);
    return status;
}

g4_status g4_timeline_run(g4_session *s, int end, const g4_wish *wish, g4_error *err)
{
    g4_stretch run;
    g4_status status = g4_stretch_begin(&run, s, end, wish, err);
    if (!status) status = g4_stretch_all(&run, err);
    return g4_stretch_end(&run, status);
}

static const g4_wish g4_wish_last = { .is_prompt = 1 }, g4_wish_keep = { .is_prompt = 1, .keep = 1 };

/* ---- Logits of the last position ----------------------------------------------------------------------------- */

g4_status g4_timeline_head(g4_session *s, const float *states, int n, float *logits, size_t stride, g4_error *err)
{
    const g4_config *c = &s->e->file.config;
    const float *each[G4_HEAD_ROWS];
    for (int i = 0; i < n; i++) each[i] = states + (size_t)i * c->hidden;
    const g4_status status = g4_engine_enter(s->e, s->gate->halt, err);
    if (status) return status;
    g4_head(&s->e->model, each, n, logits, stride);
    s->n_head_rows += (uint64_t)n * c->n_vocab;
    return g4_engine_leave(s->e, s->gate->halt, err);
}

g4_status g4_timeline_head_groups(g4_session *s, const int *groups, int n, float *logits, g4_error *err)
{
    const g4_status status = g4_engine_enter(s->e, s->gate->halt, err);
    if (status) return status;
    g4_head_groups(&s->e->model, s->state, groups, n, logits);
    s->n_head_rows += 16 * (uint64_t)n;
    return g4_engine_leave(s->e, s->gate->halt, err);
}

/* Raw logits behind the final state that is ready. */
static g4_status g4_head_of_state(g4_session *s, g4_error *err)
{
    g4_status status = g4_engine_enter(s->e, s->gate->halt, err);
    if (status) return status;
    g4_head_raw(&s->e->model, s->state, s->logits, s->group_max);
    s->n_head_rows += s->e->file.config.n_vocab;
    status = g4_engine_leave(s->e, s->gate->halt, err);
    if (!status) s->ready = G4_READY_RAW;
    return status;
}

/* The head behind the final state, or, when only keys and values are there, the last token evaluated once more: the
 * same bits. */
g4_status g4_timeline_need_raw(g4_session *s, g4_error *err)
{
    if (s->n == 0 || s->ready >= G4_READY_RAW) return G4_OK;
    if (s->ready == G4_READY_STATE) return g4_head_of_state(s, err);
    const int n = s->n;
    s->n = n - 1;
    const g4_status status = g4_timeline_run(s, n, &g4_wish_last, err);
    s->n = n;
    return status;
}

g4_status g4_timeline_need_logits(g4_session *s, g4_error *err)
{
    g4_status status = g4_timeline_need_raw(s, err);
    if (status || s->ready != G4_READY_RAW) return status;
    status = g4_engine_enter(s->e, s->gate->halt, err);
    if (status) return status;
    s->ready = G4_READY_NOTHING; /* halted, some are capped and some are not */
    g4_head_softcap(&s->e->model, s->logits);
    status = g4_engine_leave(s->e, s->gate->halt, err);
    if (!status) s->ready = G4_READY_LOGITS;
    return status;
}

/* ---- Appending ------------------------------------------------------------------------------------------- */

static g4_status g4_check_medium(const g4_session *s, const g4_prompt *p, int i, int free_from, g4_error *err)
{
    const g4_medium *m = &p->media[i];
    if (!m->soft) return g4_fail(err, G4_ERR_ARGUMENT, "media %d: no soft tokens", i);
    if (m->soft->hidden != s->e->file.config.hidden)
        return g4_fail(err, G4_ERR_MISMATCH, "media %d: its soft tokens were made by another model", i);
    if (m->pos < free_from || m->soft->n > p->n || m->pos > p->n - m->soft->n)
        return g4_fail(err, G4_ERR_ARGUMENT, "media %d: its %d soft tokens at %d overlap or leave the prompt", i,
                       m->soft->n, m->pos);
    for (int t = m->pos; t < g4_medium_end(m); t++)
        if (p->tokens[t] != m->soft->token)
            return g4_fail(err, G4_ERR_ARGUMENT, "media %d: token %d is %d, expected its placeholder %d", i, t,
                           (int)p->tokens[t], (int)m->soft->token);
    return G4_OK;
}

/* Check a prompt that is to stand behind n_before tokens. */
static g4_status g4_check_prompt(const g4_session *s, const g4_prompt *p, int n_before, g4_error *err)
{
    const uint32_t n_vocab = s->e->file.config.n_vocab;
    if (!p) return g4_fail(err, G4_ERR_ARGUMENT, "prompt is NULL");
    if (p->n < 0 || p->n_media < 0 || (p->n > 0 && !p->tokens) || (p->n_media > 0 && !p->media))
        return g4_fail(err, G4_ERR_ARGUMENT, "a prompt of %d tokens and %d media%s", p->n, p->n_media,
                       p->n >= 0 && p->n_media >= 0 ? " that are NULL" : "");
    if (p->n > s->n_ctx - n_before)
        return g4_fail(err, G4_ERR_CONTEXT, "%d tokens after %d do not fit in the context of %d", p->n, n_before,
                       s->n_ctx);
    for (int i = 0; i < p->n; i++)
        if (p->tokens[i] < 0 || (uint32_t)p->tokens[i] >= n_vocab)
            return g4_fail(err, G4_ERR_ARGUMENT, "token %d is %d: the vocabulary has ids 0 to %u", i, (int)p->tokens[i],
                           n_vocab - 1);
    g4_status status = G4_OK;
    for (int i = 0; !status && i < p->n_media; i++)
        status = g4_check_medium(s, p, i, i > 0 ? g4_medium_end(&p->media[i - 1]) : 0, err);
    return status;
}

/* Put the part of a checked prompt from token `from` on, which no medium crosses, behind the timeline, to be evaluated.
 */
static g4_status g4_place_prompt(g4_session *s, const g4_prompt *p, int from, g4_error *err)
{
    const int n = p->n - from;
    int n_media = 0;
    for (int i = 0; i < p->n_media; i++) n_media += p->media[i].pos >= from;
    if (n_media > s->cap_media - s->n_media) {
        g4_medium *grown = g4_realloc(s->e->a, s->media, (size_t)s->n_media + (size_t)n_media, sizeof *grown);
        if (!grown) return g4_fail(err, G4_ERR_MEMORY, "no memory for %d media", s->n_media + n_media);
        s->media = grown;
        s->cap_media = s->n_media + n_media;
    }
    for (int i = p->n_media - n_media; i < p->n_media; i++) {
        g4_soft_retain(p->media[i].soft);
        s->media[s->n_media++] = (g4_medium) { s->n + p->media[i].pos - from, p->media[i].soft };
    }
    if (n > 0) memmove(s->tokens + s->n, p->tokens + from, (size_t)n * sizeof *s->tokens); /* may be its own */
    return G4_OK;
}

/* Append and evaluate that part. */
static g4_status g4_append_from(g4_session *s, const g4_prompt *p, int from, const g4_wish *wish, g4_error *err)
{
    g4_status status = g4_place_prompt(s, p, from, err);
    if (!status && from < p->n) status = g4_timeline_run(s, s->n + p->n - from, wish, err);
    if (status) g4_drop_media(s, s->n);
    return status;
}

g4_status g4_timeline_append(g4_session *s, const g4_prompt *p, const g4_wish *wish, g4_error *err)
{
    const g4_status status = g4_check_prompt(s, p, s->n, err);
    return status ? status : g4_append_from(s, p, 0, wish ? wish : &g4_wish_last, err);
}

/* ---- Checkpoints ------------------------------------------------------------------------------------------- */

static float *g4_checkpoint_floats(g4_blocks *b, const float *from, size_t n)
{
    float *copy = g4_blocks_add(b, n, 1, sizeof *copy);
    if (copy) memcpy(copy, from, n * sizeof *copy);
    return copy;
}

g4_status g4_checkpoint_take(g4_checkpoint *c, const g4_session *s, int first, g4_error *err)
{
    const size_t vocab = g4_round_up(s->e->file.config.n_vocab, 16);
    *c = (g4_checkpoint) { .n = s->n, .first = first, .ready = s->ready, .blocks = { .a = s->e->a } };
    g4_blocks *b = &c->blocks;
    if (first < s->n) c->tokens = g4_blocks_add(b, (size_t)(s->n - first), 1, sizeof *c->tokens);
    if (s->n_media > 0) c->media = g4_blocks_add(b, (size_t)s->n_media, 1, sizeof *c->media);
    if (s->n_snapshots > 0) c->snapshots = g4_blocks_add(b, (size_t)s->n_snapshots, 1, sizeof *c->snapshots);
    if (s->ready == G4_READY_STATE) c->state = g4_checkpoint_floats(b, s->state, s->e->file.config.hidden);
    if (s->ready >= G4_READY_RAW) c->logits = g4_checkpoint_floats(b, s->logits, vocab);
    if (s->ready == G4_READY_RAW) c->group_max = g4_checkpoint_floats(b, s->group_max, vocab / 16);
    if (b->failed || !g4_kv_snapshot_take_all(&s->kv, first, &c->kv)) {
        g4_blocks_free(b);
        return g4_fail(err, G4_ERR_MEMORY, "no memory to keep what the timeline is");
    }
    if (c->tokens) memcpy(c->tokens, s->tokens + first, (size_t)(s->n - first) * sizeof *c->tokens);
    for (; c->n_media < s->n_media; c->n_media++) {
        c->media[c->n_media] = s->media[c->n_media];
        g4_soft_retain(c->media[c->n_media].soft);
    }
    for (; c->n_snapshots < s->n_snapshots; c->n_snapshots++) {
        c->snapshots[c->n_snapshots] = s->snapshots[c->n_snapshots];
        c->snapshots[c->n_snapshots]->refs++;
        if (c->snapshots[c->n_snapshots]->pos > first)
            g4_kv_snapshot_protect(&s->kv, &c->snapshots[c->n_snapshots]->kv, first);
    }
    return G4_OK;
}

void g4_checkpoint_drop(g4_checkpoint *c, const g4_session *s)
{
    for (int i = 0; i < c->n_media; i++) g4_soft_release(c->media[i].soft);
    for (int i = 0; i < c->n_snapshots; i++) g4_snapshot_release(s, c->snapshots[i]);
    g4_kv_snapshot_drop(&s->kv, &c->kv);
    g4_blocks_free(&c->blocks);
}

void g4_checkpoint_restore(g4_checkpoint *c, g4_session *s)
{
    const size_t vocab = g4_round_up(s->e->file.config.n_vocab, 16);
    g4_timeline_clear(s);
    g4_kv_snapshot_restore(&s->kv, &c->kv, c->n);
    s->n = c->n;
    s->ready = c->ready;
    if (c->tokens) memcpy(s->tokens + c->first, c->tokens, (size_t)(c->n - c->first) * sizeof *c->tokens);
    /* The session's arrays never shrink; the references are handed over. */
    for (; s->n_media < c->n_media; s->n_media++) s->media[s->n_media] = c->media[s->n_media];
    for (; s->n_snapshots < c->n_snapshots; s->n_snapshots++)
        s->snapshots[s->n_snapshots] = c->snapshots[s->n_snapshots];
    c->n_media = c->n_snapshots = 0;
    if (c->state) memcpy(s->state, c->state, s->e->file.config.hidden * sizeof *s->state);
    if (c->logits) memcpy(s->logits, c->logits, vocab * sizeof *s->logits);
    if (c->group_max) memcpy(s->group_max, c->group_max, vocab / 16 * sizeof *s->group_max);
    g4_checkpoint_drop(c, s);
}

void g4_checkpoint_end(g4_checkpoint *c, g4_session *s, g4_status status)
{
    if (status && status != G4_ERR_CANCELED)
        g4_checkpoint_restore(c, s);
    else
        g4_checkpoint_drop(c, s);
}

/* ---- Going back, prefix reuse --------------------------------------------------------------------------------- */

int g4_timeline_cut(g4_session *s, int n)
{
    n = g4_outside_media(&s->e->file.config, s->media, s->n_media, n);
    if (n >= s->n) return s->n;
    while (g4_last_snapshot(s) > n) g4_drop_snapshot(s, s->n_snapshots - 1);
    const int held = g4_kv_holds(&s->kv, n);
    if (!held && s->n_snapshots > 0) {
        g4_restore_last(s);
    } else {
        s->n = held ? n : 0;
        g4_kv_truncate(&s->kv, s->n);
    }
    s->ready = G4_READY_NOTHING;
    g4_drop_media(s, s->n);
    return s->n;
}

void g4_timeline_settle(g4_session *s)
{
    g4_kv_truncate(&s->kv, s->n);
    s->ready = G4_READY_NOTHING;
    g4_timeline_cut(s, s->n);
    g4_drop_media(s, s->n);
}

int g4_timeline_common(const g4_session *s, const g4_prompt *p)
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
    const g4_config *c = &s->e->file.config;
    for (int outside;; n = outside) { /* of both, whose media may be joined otherwise there */
        outside = g4_outside_media(c, p->media, p->n_media, g4_outside_media(c, s->media, s->n_media, n));
        if (outside == n) return n;
    }
}

/* Go back to position n and evaluate the rest of a checked prompt, of which the first n tokens stand there. */
static g4_status g4_continue_from(g4_session *s, int n, const g4_prompt *p, const g4_wish *wish, int *reused,
                                  g4_error *err)
{
    const int from = g4_timeline_cut(s, n);
    const uint64_t before = s->n_evaluated;
    if (from < p->n) {
        const g4_status status = g4_append_from(s, p, from, wish, err);
        *reused = g4_min_int(from, s->n);
        return status;
    }
    const g4_status status = g4_timeline_need_raw(s, err);
    *reused = p->n - (int)(s->n_evaluated - before); /* the last token may have been evaluated once more */
    return status;
}

g4_status g4_timeline_follow(g4_session *s, const g4_prompt *prompt, int *reused, g4_error *err)
{
    *reused = 0;
    g4_status status = g4_check_prompt(s, prompt, 0, err);
    if (!status) status = g4_continue_from(s, g4_timeline_common(s, prompt), prompt, &g4_wish_keep, reused, err);
    if (status && status != G4_ERR_CANCELED) *reused = 0;
    return status;
}

g4_status g4_timeline_sync(g4_session *s, const g4_prompt *prompt, int *reused, g4_error *err)
{
    int kept = 0;
    g4_checkpoint old;
    if (reused) *reused = 0;
    g4_status status = g4_check_prompt(s, prompt, 0, err);
    if (status) return status;
    const int common = g4_timeline_common(s, prompt), replaces = common < s->n;
    if (replaces) status = g4_checkpoint_take(&old, s, common, err);
    if (status) return status;
    status = g4_continue_from(s, common, prompt, &g4_wish_keep, &kept, err);
    if (replaces) g4_checkpoint_end(&old, s, status);
    if (reused && (!status || status == G4_ERR_CANCELED)) *reused = kept;
    return status;
}

g4_status g4_reading_begin(g4_reading *r, g4_session *s, const g4_prompt *prompt, g4_error *err)
{
    const g4_wish wish = { .states = s->state, .n_states = 1, .is_prompt = 1, .keep = 1 };
    *r = (g4_reading) { .stretch = { .s = s } };
    g4_status status = prompt ? g4_check_prompt(s, prompt, 0, err) : G4_OK;
    if (status) return status;
    const int common = prompt ? g4_timeline_common(s, prompt) : s->n;
    r->replaces = common < s->n;
    if (r->replaces) status = g4_checkpoint_take(&r->old, s, common, err);
    if (status) return status;
    r->reused = g4_timeline_cut(s, common);
    if (prompt) status = g4_place_prompt(s, prompt, r->reused, err);
    if (status) return g4_reading_end(r, status);
    const int end = prompt ? s->n + prompt->n - r->reused : s->n;
    r->is_again = end == s->n && s->n > 0 && s->ready == G4_READY_NOTHING;
    r->reads = end > s->n || r->is_again;
    s->n -= r->is_again; /* the last token once more, for its state */
    r->reused -= r->is_again;
    if (r->reads) status = g4_stretch_begin(&r->stretch, s, end, &wish, err);
    return status ? g4_reading_end(r, status) : G4_OK;
}

g4_status g4_reading_end(g4_reading *r, g4_status status)
{
    g4_session *s = r->stretch.s;
    if (r->reads) g4_stretch_end(&r->stretch, status);
    if (r->is_again) s->n = r->stretch.end;
    while (g4_last_snapshot(s) > s->n) g4_drop_snapshot(s, s->n_snapshots - 1); /* marks made on the way */
    if (status)
        g4_drop_media(s, s->n);
    else if (r->reads)
        s->ready = G4_READY_STATE;
    if (r->replaces) g4_checkpoint_end(&r->old, s, status);
    return status;
}

g4_status g4_timeline_rewind(g4_session *s, int n, g4_error *err)
{
    if (n < 0 || n > s->n)
        return g4_fail(err, G4_ERR_ARGUMENT, "cannot go back to %d: the timeline has %d tokens", n, s->n);
    n = g4_outside_media(&s->e->file.config, s->media, s->n_media, n);
    if (n == s->n) return g4_timeline_need_raw(s, err);
    g4_checkpoint old;
    g4_status status = g4_checkpoint_take(&old, s, n, err);
    if (status) return status;
    /* What lies between the position reached and n is evaluated again, with the media that the checkpoint holds. */
    int n_media = 0;
    while (n_media < old.n_media && old.media[n_media].pos < n) n_media++;
    const g4_prompt p = { .tokens = s->tokens, .n = n, .media = old.media, .n_media = n_media };
    int reused;
    status = g4_continue_from(s, n, &p, &g4_wish_last, &reused, err);
    if (status)
        g4_checkpoint_restore(&old, s);
    else
        g4_checkpoint_drop(&old, s);
    return status;
}
