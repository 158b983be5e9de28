/* choose.c - the next token of a reply, from the logits behind it.
 *
 * What was chosen is evaluated as late as possible: where a constraint leaves one token only, that is after it, so that
 * tokens in a row that had to come are read together and skip what a prompt skips. Of the head only as much is looked
 * at as the choice depends on. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "generate.h"

#define G4_WAIT_MAX 32 /* tokens chosen without logits that are evaluated together */

/* ---- The model, as far as a choice needs it ---------------------------------------------------------------- */

g4_status g4_chooser_evaluate(g4_chooser *c, int guess, g4_await *await, g4_error *err)
{
    if (c->waiting == 0) return G4_OK;
    const g4_status status = g4_draft_begin(&c->draft, &c->stretch, c->waiting, guess, err);
    if (status) return g4_chooser_passed(c, status);
    *await = G4_AWAIT_PASS;
    return G4_OK;
}

g4_status g4_chooser_passed(g4_chooser *c, g4_status status)
{
    if (!g4_draft_passed(&c->draft, &c->stretch, status)) c->waiting = 0;
    return status;
}

int g4_chooser_head_rows(const g4_chooser *c, g4_head_row *rows)
{
    const g4_session *s = c->s;
    const g4_config *config = &s->e->file.config;
    const float *states;
    if (c->by_few) return 0;
    const int n_guessed = g4_draft_states(&c->draft, &states);
    rows[0] = (g4_head_row) { s->state, s->logits, s->group_max };
    for (int i = 0; i < n_guessed; i++)
        rows[i] = (g4_head_row) { states + (size_t)i * config->hidden,
                                  g4_draft_room(&c->draft) + (size_t)i * g4_round_up(config->n_vocab, 16), NULL };
    return n_guessed > 0 ? n_guessed : 1;
}

void g4_chooser_take_logits(g4_chooser *c)
{
    const float *states;
    const int n_guessed = g4_draft_states(&c->draft, &states);
    c->s->n_head_rows += (uint64_t)g4_max_int(1, n_guessed) * c->s->e->file.config.n_vocab;
    if (n_guessed > 0)
        g4_draft_take_logits(&c->draft);
    else
        c->s->ready = G4_READY_RAW;
}

/* ---- Which tokens a choice depends on --------------------------------------------------------------------- */

/* The tokens that a mask allows, in id (G4_FEW), ascending; -1: more. */
static int g4_mask_few(const uint32_t *mask, int n_vocab, g4_token *id)
{
    int n = 0;
    for (int word = 0; 32 * word < n_vocab; word++)
        for (int i = 32 * word; mask[word] && i < g4_min_int(32 * word + 32, n_vocab); i++) {
            if (!(mask[word] >> (i % 32) & 1)) continue;
            if (n == G4_FEW) return -1;
            id[n++] = i;
        }
    return n;
}

/* On how many of the best tokens a choice depends; 0: on all. */
static int g4_choice_width(const g4_chooser *c)
{
    if (c->constraint || c->wants_all || g4_penalises(c->sampling)) return 0;
    return c->sampling->temperature <= 0 ? 1 : c->sampling->top_k;
}

/* The tokens that may be among the k best, in id (at most G4_FEW, ascending), and their softcapped logits in s->work;
 * without a look at the others. 0: look at all.
 *
 * Raw logits keep their order under softcap unless they are so near that they round alike, or change places by the
 * kernel's error, 2^-21 cap. Up to 4 cap tanh(x / cap) rises by sech(4)^2 = 1 / 746 at least, so G4_CAP_NEAR of the cap
 * apart they keep it. */
#define G4_CAP_FAR 4.0f
#define G4_CAP_NEAR 0x1p-10f
static int g4_candidates(g4_session *s, int k, g4_token *id)
{
    const int n_vocab = (int)s->e->file.config.n_vocab, n_groups = (n_vocab + 15) / 16;
    const float cap = s->e->file.config.softcap;
    float score[G4_FEW];
    if (s->ready != G4_READY_RAW || k > G4_FEW / 4 || g4_top(s->group_max, n_groups, k, s->candidates) < k) return 0;
    const float best = s->candidates[0].logprob, kth = s->candidates[k - 1].logprob; /* k logits are that large */
    if (cap != 0 && !(best <= G4_CAP_FAR * cap && kth >= -G4_CAP_FAR * cap)) return 0;
    const float bar = kth - G4_CAP_NEAR * cap;
    int n = 0;
    for (int g = 0; g < n_groups; g++) {
        if (s->group_max[g] < bar) continue;
        for (int i = 16 * g; i < g4_min_int(16 * g + 16, n_vocab); i++) {
            if (!(s->logits[i] >= bar)) continue;
            if (n == G4_FEW) return 0;
            score[n] = s->logits[i];
            id[n++] = i;
        }
    }
    if (cap != 0) s->e->compute.kernels->softcap(score, n, cap);
    for (int i = 0; i < n; i++) s->work[id[i]] = score[i];
    return n;
}

/* ---- The choice --------------------------------------------------------------------------------------------- */

/* What the constraint allows, in s->mask, and in few if that is not many. */
static void g4_ask_constraint(g4_chooser *c)
{
    g4_session *s = c->s;
    const int n_vocab = (int)s->e->file.config.n_vocab;
    c->n_few = -1;
    if (c->constraint == NULL) return;
    memset(s->mask, 0xFF, ((size_t)n_vocab / 32 + 1) * sizeof *s->mask);
    if (c->constraint->mask(c->constraint->user, s->mask, n_vocab))
        c->n_few = 0;
    else if (!c->wants_all)
        c->n_few = g4_mask_few(s->mask, n_vocab, c->few);
}

/* What the constraint decides alone is not evaluated yet. */
static g4_status g4_choice_begin(g4_chooser *c, g4_await *await, g4_error *err)
{
    g4_ask_constraint(c);
    const int decided = c->n_few == 0 || (c->n_few == 1 && !g4_penalises(c->sampling));
    c->token = c->n_few > 0 ? c->few[0] : -1;
    c->waited = c->waiting;
    c->since = g4_seconds();
    c->stage = decided ? G4_CHOICE_MADE : G4_CHOICE_PASSED;
    if (!decided) return g4_chooser_evaluate(c, 1, await, err);
    const int full = c->n_few > 0 && c->waiting >= g4_min_int(G4_WAIT_MAX, c->s->chunk);
    return full ? g4_chooser_evaluate(c, 0, await, err) : G4_OK;
}

/* Of the head only what the constraint allows is computed, unless log-probabilities are wanted. */
static void g4_choice_passed(g4_chooser *c, g4_await *await)
{
    const float *states;
    const g4_session *s = c->s;
    c->by_few = c->n_few > 0 && s->ready == G4_READY_STATE;
    c->stage = G4_CHOICE_HEADED;
    if (s->ready < G4_READY_RAW || g4_draft_states(&c->draft, &states) > 0) *await = G4_AWAIT_HEAD;
}

/* Logits that the choice depends on: of n_few tokens in s->work, or all in s->logits and n_few not above 0. */
static g4_status g4_choice_logits(g4_chooser *c, g4_error *err)
{
    g4_session *s = c->s;
    const int k = g4_choice_width(c);
    if (c->by_few) return G4_OK;
    const g4_status status = k > 0 ? G4_OK : g4_timeline_need_logits(s, err);
    if (status) return status;
    for (int i = 0; i < c->n_few; i++) s->work[c->few[i]] = s->logits[c->few[i]];
    if (k > 0) c->n_few = g4_candidates(s, k, c->few);
    return k > 0 && c->n_few == 0 ? g4_timeline_need_logits(s, err) : G4_OK;
}

static g4_status g4_choice_make(g4_chooser *c, g4_error *err)
{
    g4_session *s = c->s;
    const g4_status status = g4_choice_logits(c, err);
    if (status) return status;
    g4_draft_measure(&c->draft, c->waited, g4_seconds() - c->since);
    const int constrained = c->constraint != NULL;
    const g4_choice choice = { .n_vocab = (int)s->e->file.config.n_vocab,
                               .logits = s->logits,
                               .work = s->work,
                               .few = c->n_few > 0 ? c->few : NULL,
                               .n_few = c->n_few,
                               .mask = constrained ? s->mask : NULL,
                               .seen = s->seen,
                               .candidates = s->candidates,
                               .tokens = s->tokens,
                               .n_tokens = s->n,
                               .reply_start = c->start };
    c->token = g4_sample(&choice, c->sampling);
    c->stage = G4_CHOICE_MADE;
    if (c->token < 0 && !constrained && c->sampling->n_bias == 0)
        return g4_fail(err, G4_ERR_FORMAT, "no token can be chosen: the logits are no numbers, weights are damaged");
    return G4_OK;
}

g4_status g4_chooser_next(g4_chooser *c, g4_token *token, g4_await *await, g4_error *err)
{
    const g4_constraint *constraint = c->constraint;
    g4_status status = G4_OK;
    *token = -1;
    *await = G4_AWAIT_NOTHING;
    if (c->stage == G4_CHOICE_BEGINS) status = g4_choice_begin(c, await, err);
    if (!status && *await == G4_AWAIT_NOTHING && c->stage == G4_CHOICE_PASSED) g4_choice_passed(c, await);
    if (!status && *await == G4_AWAIT_NOTHING && c->stage == G4_CHOICE_HEADED) status = g4_choice_make(c, err);
    if (status || *await != G4_AWAIT_NOTHING) return status;
    c->stage = G4_CHOICE_BEGINS;
    *token = c->token;
    if (*token >= 0 && constraint && constraint->accept) constraint->accept(constraint->user, *token);
    return G4_OK;
}

/* Softcapped logits of few tokens in s->work: only their groups of the head are computed. */
static g4_status g4_head_of_few(g4_chooser *c, g4_error *err)
{
    int groups[G4_FEW], n_groups = 0;
    for (int i = 0; i < c->n_few; i++)
        if (n_groups == 0 || groups[n_groups - 1] != c->few[i] / 16) groups[n_groups++] = c->few[i] / 16;
    return g4_timeline_head_groups(c->s, groups, n_groups, c->s->work, err);
}

g4_status g4_chooser_serve(g4_chooser *c, g4_await await, g4_error *err)
{
    switch (await) {
    case G4_AWAIT_PASS: return g4_chooser_passed(c, g4_stretch_all(&c->stretch, err));
    case G4_AWAIT_HEAD: return c->by_few ? g4_head_of_few(c, err) : g4_draft_logits(&c->draft, 1, err);
    default: return G4_OK;
    }
}

g4_status g4_check_choice(const g4_session *s, const g4_sampling *p, const g4_constraint *constraint, g4_error *err)
{
    if (s->n == 0) return g4_fail(err, G4_ERR_ARGUMENT, "nothing to continue: the timeline is empty");
    if (!(p->temperature >= 0) || !isfinite(p->temperature) || p->top_k < 0 || !(p->top_p >= 0 && p->top_p <= 1) ||
        !(p->min_p >= 0 && p->min_p <= 1) || !(p->repeat_penalty >= 0) || !isfinite(p->repeat_penalty) ||
        !isfinite(p->presence_penalty) || !isfinite(p->frequency_penalty))
        return g4_fail(err, G4_ERR_ARGUMENT,
                       "sampling: temperature, top_k and penalties must not be negative, top_p and min_p lie in 0..1");
    if (p->n_bias < 0 || (p->n_bias > 0 && !p->bias))
        return g4_fail(err, G4_ERR_ARGUMENT, "sampling: n_bias is %d and bias is %s", p->n_bias,
                       p->bias ? "given" : "NULL");
    for (int i = 0; i < p->n_bias; i++)
        if (isnan(p->bias[i].bias))
            return g4_fail(err, G4_ERR_ARGUMENT, "sampling: the bias of token %d is not a number", p->bias[i].token);
    if (constraint && !constraint->mask) return g4_fail(err, G4_ERR_ARGUMENT, "the constraint's mask is NULL");
    return G4_OK;
}

/* ---- The choice alone ------------------------------------------------------------------------------------------ */

static g4_status g4_timeline_choose(g4_session *s, const g4_choose_options *opt, g4_token *out, g4_error *err)
{
    static const g4_choose_options defaults = { 0 };
    if (!opt) opt = &defaults;
    g4_sampling recommended;
    g4_sampling_recommended(s->e, &recommended);
    g4_chooser c = { .s = s,
                     .sampling = opt->sampling ? opt->sampling : &recommended,
                     .constraint = opt->constraint,
                     .start = opt->reply_start };
    g4_status status = g4_check_choice(s, c.sampling, c.constraint, err);
    if (status) return status;
    if (c.start < 0 || c.start > s->n)
        return g4_fail(err, G4_ERR_ARGUMENT, "a reply that starts at %d: the timeline has %d tokens", c.start, s->n);
    const g4_constraint_hooks *own = c.constraint ? c.constraint->own : NULL;
    if (own) status = own->begin(c.constraint->user, s->e->file.config.n_vocab, s->gate->halt, err);
    if (status) return status;
    g4_draft_open(&c.draft, s, 0);
    g4_await await;
    do {
        status = g4_chooser_next(&c, out, &await, err);
        if (!status) status = g4_chooser_serve(&c, await, err);
    } while (!status && await != G4_AWAIT_NOTHING);
    g4_draft_close(&c.draft);
    return own ? own->end(c.constraint->user, status, 0, err) : status;
}

g4_status g4_session_choose(g4_session *s, const g4_choose_options *opt, g4_token *out, g4_error *err)
{
    g4_call call;
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = -1;
    g4_status status = g4_call_begin(&call, s, NULL, err);
    if (!status) status = g4_timeline_choose(s, opt, out, err);
    return g4_call_end(&call, status);
}

/* ---- What logits say ------------------------------------------------------------------------------------------ */

float g4_logprob(float logit, double log_sum) { return (float)((double)logit - log_sum); }

int g4_top_logprobs(const float *logits, int n_vocab, double log_sum, int n, g4_candidate *out)
{
    n = g4_top(logits, n_vocab, g4_min_int(n, n_vocab), out);
    for (int i = 0; i < n; i++) out[i].logprob = g4_logprob(out[i].logprob, log_sum);
    return n;
}

g4_token g4_logits_argmax(const g4_engine *e, const float *logits)
{
    g4_candidate best;
    return e && logits && g4_top(logits, (int)e->file.config.n_vocab, 1, &best) == 1 ? best.token : -1;
}

float g4_logits_logprob(const g4_engine *e, const float *logits, g4_token id)
{
    if (!e || !logits || id < 0 || (uint32_t)id >= e->file.config.n_vocab) return -INFINITY;
    return g4_logprob(logits[id], g4_log_sum(logits, (int)e->file.config.n_vocab));
}

int g4_logits_top(const g4_engine *e, const float *logits, int n, g4_candidate *out)
{
    if (!e || !logits || !out || n <= 0) return 0;
    const int n_vocab = (int)e->file.config.n_vocab;
    return g4_top_logprobs(logits, n_vocab, g4_log_sum(logits, n_vocab), n, out);
}
