/* draft.c - guesses at what follows, by looking up where the last tokens stood before.
 *
 * A guess is evaluated together with the token before it (the weights are read once) and holds if it is the token that
 * would have been chosen anyway: the random number of a position does not depend on how it was reached, and neither do
 * logits, so the text is the same with and without. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "generate.h"

#define G4_DRAFT_FIRST 3      /* guesses made the first time */
#define G4_DRAFT_MATCH 3      /* tokens in a row that must have stood before */
#define G4_DRAFT_REST 8       /* tokens without guesses after they did not pay, doubled each time ... */
#define G4_DRAFT_REST_MAX 128 /* ... up to this */

void g4_draft_open(g4_draft *d, g4_session *s, int wanted)
{
    /* Taps are to see nothing that is taken back. */
    *d = (g4_draft) {
        .s = s, .wanted = wanted && !g4_taps_given(&s->taps), .length = G4_DRAFT_FIRST, .next_rest = G4_DRAFT_REST
    };
}

/* Write up to max guesses behind the n tokens t; returns their number. */
static int g4_draft_find(g4_token *t, int n, int max)
{
    for (int end = n - 1; end >= G4_DRAFT_MATCH; end--) { /* t[end - G4_DRAFT_MATCH .. end) equals the last ones */
        if (memcmp(t + end - G4_DRAFT_MATCH, t + n - G4_DRAFT_MATCH, G4_DRAFT_MATCH * sizeof *t) != 0) continue;
        for (int i = 0; i < max; i++) t[n + i] = t[end + i]; /* a period goes on by itself */
        return max;
    }
    return 0;
}

/* Go on to a position that was evaluated with the guesses. */
static void g4_draft_use(g4_draft *d, int row)
{
    g4_session *s = d->s;
    const g4_config *c = &s->e->file.config;
    d->row = row;
    if (d->rows_ready)
        memcpy(s->logits, s->guessed_logits + (size_t)row * g4_round_up(c->n_vocab, 16),
               c->n_vocab * sizeof *s->logits);
    else
        memcpy(s->state, s->guessed_states + (size_t)row * c->hidden, c->hidden * sizeof *s->state);
    s->ready = d->rows_ready ? G4_READY_LOGITS : G4_READY_STATE;
}

/* The guesses of a batch are used up, or the next one was wrong: forget the rest and learn from it. */
static void g4_draft_end(g4_draft *d)
{
    g4_session *s = d->s;
    const int held = d->row; /* guesses that were right */
    s->n_guessed += (uint64_t)(d->row + d->ahead);
    s->n_held += (uint64_t)held;
    d->gain = 0.7 * d->gain + 0.3 * ((1 + held) * d->one - d->batch);
    if (d->gain < 0) {
        d->rest = d->next_rest;
        d->next_rest = g4_min_int(2 * d->next_rest, G4_DRAFT_REST_MAX);
        d->gain = 0;
    } else if (held > 0) {
        d->next_rest = G4_DRAFT_REST;
    }
    d->length = d->ahead > 0 ? g4_max_int(1, held) : g4_min_int(d->length + 2, G4_DRAFT_MAX);
    if (d->ahead > 0) g4_kv_truncate(&s->kv, s->n);
    d->ahead = d->row = d->rows_ready = 0;
}

void g4_draft_close(g4_draft *d)
{
    if (d->ahead > 0) g4_draft_end(d);
}

int g4_draft_accept(g4_draft *d, g4_token token)
{
    g4_session *s = d->s;
    if (d->ahead == 0) return 0;
    const int held = s->tokens[s->n] == token;
    if (held) {
        s->n++;
        s->n_evaluated++;
        d->ahead--;
        g4_draft_use(d, d->row + 1);
    }
    if (!held || d->ahead == 0) g4_draft_end(d);
    return held;
}

g4_status g4_draft_begin(g4_draft *d, g4_stretch *r, int waiting, int guess, g4_error *err)
{
    g4_session *s = d->s;
    const int end = s->n + waiting;
    int n = 0, rows;
    if (guess && d->wanted && d->one > 0 && d->rest == 0) {
        const int room = g4_min_int(s->chunk - waiting, s->n_ctx - end);
        n = g4_draft_find(s->tokens, end, g4_min_int(d->length, room));
    }
    if (d->rest > 0) d->rest--;
    const g4_wish guessed = { .states = s->guessed_states, .n_states = 1 + n };
    const g4_wish alone = { .states = s->state, .n_states = 1 };
    if (n > 0 && (g4_stretch_begin(r, s, end + n, &guessed, NULL) || g4_stretch_next(r, waiting + n, &rows, NULL))) {
        g4_stretch_end(r, G4_ERR_MEMORY); /* without the memory there are no guesses */
        n = 0;
    }
    d->asked = n;
    return n > 0 ? G4_OK : g4_stretch_begin(r, s, end, &alone, err);
}

g4_status g4_draft_passed(g4_draft *d, g4_stretch *r, g4_status status)
{
    g4_session *s = d->s;
    if (g4_stretch_end(r, status)) return status;
    s->n = r->end - d->asked;
    s->n_evaluated -= (uint64_t)d->asked;
    d->ahead = d->asked;
    if (d->ahead > 0)
        g4_draft_use(d, 0);
    else
        s->ready = G4_READY_STATE;
    return G4_OK;
}

int g4_draft_states(const g4_draft *d, const float **states)
{
    *states = d->s->guessed_states + (size_t)d->row * d->s->e->file.config.hidden;
    return d->ahead > 0 && d->s->ready != G4_READY_LOGITS ? 1 + d->ahead : 0;
}

float *g4_draft_room(const g4_draft *d)
{
    return d->s->guessed_logits + (size_t)d->row * g4_round_up(d->s->e->file.config.n_vocab, 16);
}

void g4_draft_take_logits(g4_draft *d)
{
    d->rows_ready = 1;
    g4_draft_use(d, d->row);
}

g4_status g4_draft_logits(g4_draft *d, int raw, g4_error *err)
{
    g4_session *s = d->s;
    const float *states;
    const int n = g4_draft_states(d, &states);
    if (n == 0) return raw ? g4_timeline_need_raw(s, err) : g4_timeline_need_logits(s, err);
    const size_t stride = g4_round_up(s->e->file.config.n_vocab, 16);
    const g4_status status = g4_timeline_head(s, states, n, g4_draft_room(d), stride, err);
    if (!status) g4_draft_take_logits(d);
    return status;
}

void g4_draft_measure(g4_draft *d, int waited, double seconds)
{
    if (d->ahead > 0)
        d->batch = waited > 0 ? seconds : d->batch + seconds;
    else if (waited == 1)
        d->one = d->one > 0 ? 0.8 * d->one + 0.2 * seconds : seconds;
}
