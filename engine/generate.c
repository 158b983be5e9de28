/* generate.c - answers: choose, tell, append, until something ends the reply.
 *
 * What was chosen is evaluated as late as possible: where a constraint leaves one token only, that is after it, so that
 * tokens in a row that had to come are read together and skip what a prompt skips. Of the head only as much is looked
 * at as the choice depends on. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "generate.h"

#define G4_GUARD_TOKENS 64  /* repeated tokens that count as runaway: 64 equal ones, ... */
#define G4_GUARD_BLOCKS 8   /* ... or 8 equal blocks that fill as many */
#define G4_GUARD_PERIOD 256 /* longest block looked for */
#define G4_MAX_TOP 64
#define G4_WAIT_MAX 32 /* tokens chosen without logits that are evaluated together */
#define G4_FEW 1024    /* tokens up to which a choice looks at them alone */

const char *g4_stop_name(g4_stop stop)
{
    switch (stop) {
    case G4_STOP_END: return "stop";
    case G4_STOP_MAX_TOKENS: return "length";
    case G4_STOP_STRING: return "stop_string";
    case G4_STOP_CALLBACK: return "callback";
    case G4_STOP_CONTEXT: return "context";
    case G4_STOP_REPEAT: return "repetition";
    case G4_STOP_CONSTRAINT: return "constraint";
    }
    return "unknown";
}

typedef struct {
    g4_session *s;
    const g4_generate_options *opt;
    const g4_sampling *sampling;
    int start; /* of the reply in the timeline */
    g4_utf8 utf8;
    g4_buf pending;                /* complete characters not yet output: they may begin a stop string */
    int same[G4_GUARD_PERIOD + 1]; /* tokens in a row equal to the one `period` before */
    g4_candidate top[G4_MAX_TOP];
    int waiting; /* chosen tokens behind the timeline that are not evaluated yet: no logits were needed since */
    g4_draft draft;
} g4_reply;

/* Evaluate the tokens that wait. */
static g4_status g4_reply_evaluate(g4_reply *r, int guess, g4_error *err)
{
    const g4_status status = g4_draft_evaluate(&r->draft, r->waiting, guess, err);
    if (!status) r->waiting = 0;
    return status;
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
static int g4_choice_width(const g4_reply *r)
{
    if (r->opt->constraint || r->opt->want_logprobs || g4_penalises(r->sampling)) return 0;
    return r->sampling->temperature <= 0 ? 1 : r->sampling->top_k;
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

/* Softcapped logits of some tokens, ascending, in s->work: only their groups of the head are computed. */
static g4_status g4_head_of_few(g4_session *s, const g4_token *id, int n, g4_error *err)
{
    int groups[G4_FEW], n_groups = 0;
    for (int i = 0; i < n; i++)
        if (n_groups == 0 || groups[n_groups - 1] != id[i] / 16) groups[n_groups++] = id[i] / 16;
    return g4_timeline_head_groups(s, groups, n_groups, s->work, err);
}

/* ---- The choice --------------------------------------------------------------------------------------------- */

/* What the constraint allows, in s->mask, and in few if that is not many: *n_few of them, -1: more. */
static void g4_ask_constraint(g4_reply *r, g4_token *few, int *n_few)
{
    g4_session *s = r->s;
    const int n_vocab = (int)s->e->file.config.n_vocab;
    memset(s->mask, 0xFF, ((size_t)n_vocab / 32 + 1) * sizeof *s->mask);
    *n_few = -1;
    if (r->opt->constraint->mask(r->opt->constraint->user, s->mask, n_vocab))
        *n_few = 0;
    else if (!r->opt->want_logprobs)
        *n_few = g4_mask_few(s->mask, n_vocab, few);
}

/* Logits that the choice depends on: of n_few tokens in s->work, or all in s->logits; *n_few becomes their number, or
 * is not above 0. */
static g4_status g4_reply_logits(g4_reply *r, g4_token *few, int *n_few, g4_error *err)
{
    g4_session *s = r->s;
    const int k = g4_choice_width(r);
    if (*n_few > 0 && s->ready == G4_READY_STATE) return g4_head_of_few(s, few, *n_few, err);
    g4_status status = g4_draft_logits(&r->draft, k > 0, err);
    if (status) return status;
    for (int i = 0; i < *n_few; i++) s->work[few[i]] = s->logits[few[i]];
    if (k > 0) *n_few = g4_candidates(s, k, few);
    return k > 0 && *n_few == 0 ? g4_timeline_need_logits(s, err) : G4_OK;
}

/* The next token, -1 when none is allowed. What the constraint decides alone is not evaluated yet, and of the head only
 * what it allows is computed, unless log-probabilities are wanted. */
static g4_status g4_reply_choose(g4_reply *r, g4_token *token, g4_error *err)
{
    g4_session *s = r->s;
    const int waited = r->waiting, constrained = r->opt->constraint != NULL;
    g4_token few[G4_FEW];
    int n_few = -1;
    *token = -1;
    if (constrained) {
        g4_ask_constraint(r, few, &n_few);
        if (n_few == 0) return G4_OK;
        if (n_few == 1 && !g4_penalises(r->sampling)) {
            *token = few[0];
            return r->waiting < g4_min_int(G4_WAIT_MAX, s->chunk) ? G4_OK : g4_reply_evaluate(r, 0, err);
        }
    }
    const double start = g4_seconds();
    g4_status status = g4_reply_evaluate(r, 1, err);
    if (!status) status = g4_reply_logits(r, few, &n_few, err);
    if (status) return status;
    g4_draft_measure(&r->draft, waited, g4_seconds() - start);
    const g4_choice choice = { .n_vocab = (int)s->e->file.config.n_vocab,
                               .logits = s->logits,
                               .work = s->work,
                               .few = n_few > 0 ? few : NULL,
                               .n_few = n_few,
                               .mask = constrained ? s->mask : NULL,
                               .seen = s->seen,
                               .candidates = s->candidates,
                               .tokens = s->tokens,
                               .n_tokens = s->n,
                               .reply_start = r->start };
    *token = g4_sample(&choice, r->sampling);
    return G4_OK;
}

static int g4_is_stop(const g4_config *c, g4_token id)
{
    for (uint32_t i = 0; i < c->n_stop; i++)
        if ((uint32_t)id == c->stop[i]) return 1;
    return 0;
}

/* Has the reply run away with its newest token? */
static int g4_runs_away(g4_reply *r)
{
    const g4_token *t = r->s->tokens;
    const int n = r->s->n + r->waiting;
    for (int period = 1; period <= G4_GUARD_PERIOD && n - period > r->start; period++) {
        r->same[period] = t[n - 1] == t[n - 1 - period] ? r->same[period] + 1 : 0;
        if (r->same[period] + period >= g4_max_int(G4_GUARD_TOKENS, G4_GUARD_BLOCKS * period)) return 1;
    }
    return 0;
}

/* ---- Output --------------------------------------------------------------------------------------------------- */

/* Where the first stop string begins in the pending text, or its length; *held gets how many bytes at the end may
 * begin one. */
static size_t g4_find_stop(const g4_reply *r, size_t *held)
{
    const char *text = r->pending.data;
    const size_t n = r->pending.len;
    size_t found = n;
    *held = 0;
    for (int i = 0; i < r->opt->n_stop; i++) {
        const char *stop = r->opt->stop[i];
        const size_t len = strlen(stop);
        for (size_t pos = 0; len > 0 && pos < n; pos++) {
            const size_t rest = n - pos < len ? n - pos : len;
            if (memcmp(text + pos, stop, rest) != 0) continue;
            if (rest == len && pos < found) found = pos;
            if (rest < len && rest > *held) *held = rest;
        }
    }
    return found;
}

/* Pass the first n bytes of the pending text on. Returns nonzero if the caller wants no more. */
static int g4_reply_output(g4_reply *r, const g4_output *about, size_t n)
{
    g4_output out = *about;
    out.text = n ? r->pending.data : "";
    out.text_len = n;
    return r->opt->output && r->opt->output(r->opt->user, &out);
}

static void g4_reply_consume(g4_reply *r, size_t n)
{
    if (n > 0) memmove(r->pending.data, r->pending.data + n, r->pending.len - n);
    r->pending.len -= n;
}

static void g4_reply_logprobs(g4_reply *r, g4_output *about)
{
    const float *logits = r->s->logits;
    const int n_vocab = (int)r->s->e->file.config.n_vocab;
    const float sum = g4_log_sum(logits, n_vocab);
    about->logprob = logits[about->token] - sum;
    about->n_top = g4_top(logits, n_vocab, g4_min_int(g4_min_int(r->opt->n_top, G4_MAX_TOP), n_vocab), r->top);
    for (int i = 0; i < about->n_top; i++) r->top[i].logprob -= sum;
    about->top = r->top;
}

/* Take one chosen token into the timeline and its text to the caller. *stopped says whether that ends the reply. */
static g4_status g4_reply_take(g4_reply *r, g4_token token, int *stopped, g4_stop *stop, g4_error *err)
{
    g4_session *s = r->s;
    g4_output about = { .token = token };
    char piece[256], whole[260];
    const size_t n = g4_tokenizer_piece(&s->e->tokenizer, token, piece, &about.is_special);
    const size_t ready = g4_utf8_push(&r->utf8, piece, about.is_special ? 0 : n, whole);
    if (!about.is_special) g4_buf_add(&r->pending, whole, ready);
    if (r->pending.failed) return g4_fail(err, G4_ERR_MEMORY, "no memory for the reply");
    if (r->opt->want_logprobs) g4_reply_logprobs(r, &about);
    if (!g4_draft_accept(&r->draft, token)) s->tokens[s->n + r->waiting++] = token;
    size_t held = 0;
    const size_t found = r->pending.len ? g4_find_stop(r, &held) : 0;
    const int hit = found < r->pending.len;
    const size_t emit = hit ? found : r->pending.len - held;
    if (g4_reply_output(r, &about, emit)) {
        *stopped = 1;
        *stop = G4_STOP_CALLBACK;
    }
    g4_reply_consume(r, hit ? r->pending.len : emit);
    if (hit) {
        *stopped = 1;
        *stop = G4_STOP_STRING;
    } else if (!*stopped && !r->opt->no_guard && g4_runs_away(r)) {
        *stopped = 1;
        *stop = G4_STOP_REPEAT;
    }
    return G4_OK;
}

/* Output what was held back, malformed bytes included. */
static void g4_reply_flush(g4_reply *r, int quiet)
{
    const g4_output about = { .token = -1 };
    char rest[8];
    g4_buf_add(&r->pending, rest, g4_utf8_push(&r->utf8, NULL, 0, rest));
    if (!quiet && r->pending.len > 0) g4_reply_output(r, &about, r->pending.len);
}

/* ---- The loop ---------------------------------------------------------------------------------------------- */

/* One more token. *stopped says whether the reply ends. */
static g4_status g4_reply_step(g4_reply *r, g4_result *result, int *stopped, g4_error *err)
{
    const g4_session *s = r->s;
    const g4_generate_options *opt = r->opt;
    *stopped = 1;
    if (opt->max_tokens > 0 && result->n_tokens >= opt->max_tokens) {
        result->stop = G4_STOP_MAX_TOKENS;
        return G4_OK;
    }
    if (s->n + r->waiting >= s->n_ctx) {
        result->stop = G4_STOP_CONTEXT;
        return G4_OK;
    }
    g4_token token;
    g4_status status = g4_reply_choose(r, &token, err);
    if (status) return status;
    if (token < 0) {
        result->stop = G4_STOP_CONSTRAINT;
        return G4_OK;
    }
    if (opt->constraint && opt->constraint->accept) opt->constraint->accept(opt->constraint->user, token);
    if (!opt->ignore_stop_ids && g4_is_stop(&s->e->file.config, token)) {
        result->stop = G4_STOP_END;
        result->stop_token = token;
        return G4_OK;
    }
    *stopped = 0;
    status = g4_reply_take(r, token, stopped, &result->stop, err);
    if (!status) result->n_tokens++;
    return status;
}

static g4_status g4_reply_run(g4_reply *r, g4_result *result, g4_error *err)
{
    int stopped = 0;
    g4_status status = r->s->ready == G4_READY_NOTHING ? g4_timeline_need_raw(r->s, err) : G4_OK;
    while (!status && !stopped) status = g4_reply_step(r, result, &stopped, err);
    if (!status) status = g4_reply_evaluate(r, 0, err);
    result->n_tokens -= r->waiting; /* those that could not be evaluated are not in the timeline */
    g4_reply_flush(r, status || result->stop == G4_STOP_STRING);
    return status;
}

static g4_status g4_check_generate(const g4_session *s, const g4_generate_options *opt, const g4_sampling *p,
                                   g4_error *err)
{
    if (s->n == 0) return g4_fail(err, G4_ERR_ARGUMENT, "nothing to continue: the timeline is empty");
    if (opt->max_tokens < 0 || opt->n_top < 0 || opt->n_top > G4_MAX_TOP || (opt->n_stop > 0 && !opt->stop))
        return g4_fail(err, G4_ERR_ARGUMENT, "max_tokens %d, n_top %d (at most %d) or n_stop %d", opt->max_tokens,
                       opt->n_top, G4_MAX_TOP, opt->n_stop);
    if (!(p->temperature >= 0) || !isfinite(p->temperature) || p->top_k < 0 || !(p->top_p >= 0 && p->top_p <= 1) ||
        !(p->min_p >= 0 && p->min_p <= 1) || !(p->repeat_penalty >= 0) || !isfinite(p->presence_penalty) ||
        !isfinite(p->frequency_penalty))
        return g4_fail(err, G4_ERR_ARGUMENT,
                       "sampling: temperature, top_k and penalties must not be negative, top_p and min_p lie in 0..1");
    return G4_OK;
}

/* Generate into a timeline that the caller puts back when that fails. */
static g4_status g4_reply_make(g4_session *s, const g4_generate_options *opt, const g4_sampling *sampling,
                               g4_result *result, g4_error *err)
{
    g4_reply reply = { .s = s, .opt = opt, .sampling = sampling, .start = s->n, .pending = { .a = s->e->a } };
    *result = (g4_result) { .stop_token = -1 };
    const g4_constraint *constraint = opt->constraint;
    const g4_constraint_hooks *own = constraint ? constraint->own : NULL;
    g4_status status = own ? own->begin(constraint->user, s->gate->halt, err) : G4_OK;
    if (status) return status;
    g4_draft_open(&reply.draft, s, !opt->no_lookup);
    const double start = g4_seconds();
    status = g4_reply_run(&reply, result, err);
    if (own) status = own->end(constraint->user, status, result->n_tokens, err);
    result->seconds = g4_seconds() - start;
    g4_draft_close(&reply.draft);
    g4_buf_free(&reply.pending);
    return status;
}

g4_status g4_timeline_generate(g4_session *s, const g4_generate_options *opt, g4_result *out, g4_error *err)
{
    static const g4_generate_options defaults = { 0 };
    if (!opt) opt = &defaults;
    g4_sampling recommended;
    g4_sampling_recommended(s->e, &recommended);
    const g4_sampling *sampling = opt->sampling ? opt->sampling : &recommended;
    g4_status status = g4_check_generate(s, opt, sampling, err);
    g4_result result;
    g4_checkpoint old;
    if (!status) status = g4_checkpoint_take(&old, s, s->n, err);
    if (status) return status;
    status = g4_reply_make(s, opt, sampling, &result, err);
    if (status && status != G4_ERR_CANCELED) {
        g4_checkpoint_restore(&old, s);
        return status;
    }
    g4_checkpoint_drop(&old, s);
    if (out) *out = result;
    return status;
}

g4_status g4_session_generate(g4_session *s, const g4_generate_options *opt, g4_result *out, g4_error *err)
{
    g4_call call;
    if (out) *out = (g4_result) { .stop_token = -1 };
    g4_status status = g4_call_begin(&call, s, opt ? &opt->limits : NULL, err);
    if (!status) status = g4_timeline_generate(s, opt, out, err);
    return g4_call_end(&call, status);
}
