/* generate.c - answers: choose (choose.c), tell, append, until something ends the reply. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "generate.h"

#define G4_GUARD_TOKENS 64 /* repeated tokens that count as runaway: 64 equal ones, ... */
#define G4_GUARD_BLOCKS 8  /* ... or 8 equal blocks that fill as many */

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
    case G4_STOP_CANCELED: return "canceled";
    }
    return "unknown";
}

/* ---- Runaway repetition ---------------------------------------------------------------------------------------- */

/* Has the reply run away with its newest token? */
static int g4_runs_away(g4_reply *r)
{
    const g4_token *t = r->s->tokens;
    const int n = r->s->n + r->next.waiting;
    for (int period = 1; period <= G4_GUARD_PERIOD && n - period > r->next.start; period++) {
        r->same[period] = t[n - 1] == t[n - 1 - period] ? r->same[period] + 1 : 0;
        if (r->same[period] + period >= g4_max_int(G4_GUARD_TOKENS, G4_GUARD_BLOCKS * period)) return 1;
    }
    return 0;
}

/* ---- Output --------------------------------------------------------------------------------------------------- */

/* Where the first stop string begins in the pending text, or its length; *held gets how many bytes at the end may
 * begin one. */
static size_t g4_find_stop(const g4_reply *r, size_t *held, const char **which)
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
            if (rest == len && pos < found) {
                found = pos;
                *which = stop;
            }
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
    const double log_sum = g4_log_sum(logits, n_vocab);
    about->logprob = g4_logprob(logits[about->token], log_sum);
    about->n_top = g4_top_logprobs(logits, n_vocab, log_sum, r->opt->n_top, r->top);
    about->top = r->top;
}

static void g4_reply_stop(g4_reply *r, g4_stop why)
{
    r->stopped = 1;
    r->result.stop = why;
}

/* Take one chosen token into the timeline and its text to the caller. */
static g4_status g4_reply_take(g4_reply *r, g4_token token, g4_error *err)
{
    g4_session *s = r->s;
    g4_output about = { .token = token };
    char piece[256], whole[260];
    const size_t n = g4_tokenizer_piece(&s->e->tokenizer, token, piece, &about.is_special);
    const size_t ready = g4_utf8_push(&r->utf8, piece, about.is_special ? 0 : n, whole);
    if (!about.is_special) g4_buf_add(&r->pending, whole, ready);
    if (r->pending.failed) return g4_fail(err, G4_ERR_MEMORY, "no memory for the reply");
    if (r->opt->want_logprobs) g4_reply_logprobs(r, &about);
    if (!g4_draft_accept(&r->next.draft, token)) s->tokens[s->n + r->next.waiting++] = token;
    size_t held = 0;
    const size_t found = r->pending.len ? g4_find_stop(r, &held, &r->result.stop_string) : 0;
    const int hit = found < r->pending.len;
    const size_t emit = hit ? found : r->pending.len - held;
    const int is_unwanted = g4_reply_output(r, &about, emit);
    g4_reply_consume(r, hit ? r->pending.len : emit);
    if (hit)
        g4_reply_stop(r, G4_STOP_STRING);
    else if (is_unwanted)
        g4_reply_stop(r, G4_STOP_CALLBACK);
    else if (!r->opt->no_guard && g4_runs_away(r))
        g4_reply_stop(r, G4_STOP_REPEAT);
    r->result.n_tokens++;
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

/* One more token, unless the model is needed for it. */
static g4_status g4_reply_step(g4_reply *r, g4_await *await, g4_error *err)
{
    const g4_session *s = r->s;
    const g4_generate_options *opt = r->opt;
    g4_token token;
    if (opt->max_tokens > 0 && r->result.n_tokens >= opt->max_tokens) {
        g4_reply_stop(r, G4_STOP_MAX_TOKENS);
        return G4_OK;
    }
    if (s->n + r->next.waiting >= s->n_ctx) {
        g4_reply_stop(r, G4_STOP_CONTEXT);
        return G4_OK;
    }
    const g4_status status = g4_chooser_next(&r->next, &token, await, err);
    if (status || *await != G4_AWAIT_NOTHING) return status;
    if (token < 0) {
        g4_reply_stop(r, G4_STOP_CONSTRAINT);
    } else if (!opt->ignore_stop_ids && g4_token_is_stop(s->e, token)) {
        g4_reply_stop(r, G4_STOP_END);
        r->result.stop_token = token;
    } else {
        return g4_reply_take(r, token, err);
    }
    return G4_OK;
}

g4_status g4_reply_go_on(g4_reply *r, g4_await *await, g4_error *err)
{
    g4_status status = G4_OK;
    *await = G4_AWAIT_NOTHING;
    while (!status && *await == G4_AWAIT_NOTHING && !r->stopped) status = g4_reply_step(r, await, err);
    /* All that was chosen becomes part of the timeline. */
    if (!status && *await == G4_AWAIT_NOTHING) status = g4_chooser_evaluate(&r->next, 0, await, err);
    return status;
}

static g4_status g4_check_generate(const g4_session *s, const g4_generate_options *opt, const g4_sampling *p,
                                   g4_error *err)
{
    if (opt->max_tokens < 0 || opt->n_top < 0 || opt->n_top > G4_MAX_TOP || opt->n_stop < 0)
        return g4_fail(err, G4_ERR_ARGUMENT, "max_tokens %d, n_top %d (at most %d) or n_stop %d", opt->max_tokens,
                       opt->n_top, G4_MAX_TOP, opt->n_stop);
    for (int i = 0; i < opt->n_stop; i++)
        if (!opt->stop || !opt->stop[i]) return g4_fail(err, G4_ERR_ARGUMENT, "stop string %d is NULL", i);
    return g4_check_choice(s, p, opt->constraint, err);
}

g4_status g4_reply_open(g4_reply *r, g4_session *s, const g4_generate_options *opt, g4_error *err)
{
    static const g4_generate_options defaults = { 0 };
    *r = (g4_reply) { .s = s, .opt = opt ? opt : &defaults, .pending = { .a = s->e->a } };
    r->result.stop_token = -1;
    g4_sampling_recommended(s->e, &r->recommended);
    const g4_sampling *sampling = r->opt->sampling ? r->opt->sampling : &r->recommended;
    const g4_constraint *constraint = r->opt->constraint;
    g4_status status = g4_check_generate(s, r->opt, sampling, err);
    if (status) return status;
    r->next.s = s;
    r->next.sampling = sampling;
    r->next.constraint = constraint;
    r->next.start = s->n;
    r->next.wants_all = r->opt->want_logprobs;
    const g4_constraint_hooks *own = constraint ? constraint->own : NULL;
    if (own) status = own->begin(constraint->user, s->e->file.config.n_vocab, s->gate->halt, err);
    if (status) return status;
    g4_draft_open(&r->next.draft, s, !r->opt->no_lookup);
    r->since = g4_seconds();
    return G4_OK;
}

g4_status g4_reply_close(g4_reply *r, g4_status status, g4_error *err)
{
    const g4_constraint *constraint = r->opt->constraint;
    const g4_constraint_hooks *own = constraint ? constraint->own : NULL;
    r->result.n_tokens -= r->next.waiting; /* those that could not be evaluated are not in the timeline */
    g4_reply_flush(r, (status && status != G4_ERR_CANCELED) || r->result.stop == G4_STOP_STRING);
    if (own) status = own->end(constraint->user, status, r->result.n_tokens, err);
    r->result.seconds = g4_seconds() - r->since;
    g4_draft_close(&r->next.draft);
    g4_buf_free(&r->pending);
    return status;
}

g4_status g4_timeline_generate(g4_session *s, const g4_generate_options *opt, g4_result *out, g4_error *err)
{
    g4_reply r;
    g4_await await;
    g4_status status = g4_reply_open(&r, s, opt, err);
    if (status) return status;
    if (s->ready == G4_READY_NOTHING) status = g4_timeline_need_raw(s, err);
    while (!status && !(status = g4_reply_go_on(&r, &await, err)) && await != G4_AWAIT_NOTHING)
        status = g4_chooser_serve(&r.next, await, err);
    status = g4_reply_close(&r, status, err);
    if (out && (!status || status == G4_ERR_CANCELED)) *out = r.result;
    return status;
}

g4_status g4_session_generate(g4_session *s, const g4_generate_options *opt, g4_result *out, g4_error *err)
{
    g4_call call;
    g4_checkpoint old;
    if (out) *out = (g4_result) { .stop_token = -1 };
    g4_status status = g4_call_begin(&call, s, opt ? &opt->limits : NULL, err);
    if (!status) status = g4_checkpoint_take(&old, s, s->n, err);
    if (!status) {
        status = g4_timeline_generate(s, opt, out, err);
        g4_checkpoint_end(&old, s, status);
    }
    if (status == G4_ERR_CANCELED && out) out->stop = G4_STOP_CANCELED; /* also before it began */
    return g4_call_end(&call, status);
}
