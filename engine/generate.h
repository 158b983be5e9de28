/* generate.h - the floor of answers: guesses (draft.c), choices (choose.c) and generation (generate.c). */
#ifndef GEMMA4_GENERATE_H
#define GEMMA4_GENERATE_H

#include "session.h"

/* ---- Guesses (draft.c) ---------------------------------------------------------------------------------- */

#define G4_DRAFT_MAX 7 /* guessed tokens evaluated together with a chosen one */
_Static_assert(G4_DRAFT_MAX < G4_HEAD_ROWS, "the head computes the logits of a chosen token and its guesses at once");

/* Positions past the timeline that are evaluated already, with guessed tokens; it lives as long as one reply. The
 * session has room for their states and logits. */
typedef struct {
    g4_session *s;
    int wanted;                  /* it makes guesses at all */
    int rows_ready;              /* the logits behind all guesses are there */
    int ahead, row;              /* guesses not yet confirmed; row of the present state */
    int length, rest, next_rest; /* guesses to make next time; tokens to wait first, and next time */
    double one, batch, gain;     /* seconds of a token alone, of the last batch, and what a batch gained lately */
} g4_draft;
void g4_draft_open(g4_draft *d, g4_session *s, int wanted);
void g4_draft_close(g4_draft *d);
/* A token was chosen: is it what was guessed, so that it is evaluated already? Else the guesses are forgotten. */
int g4_draft_accept(g4_draft *d, g4_token token);
/* Evaluate the `waiting` tokens behind the timeline, with guesses at what follows if `guess`. Of those before the last
 * only keys and values are needed. Afterwards the state behind the last one is there. */
g4_status g4_draft_evaluate(g4_draft *d, int waiting, int guess, g4_error *err);
/* Logits of the last position, raw ones if `raw` will do, and at the same time those behind the guesses: the weights of
 * the head are read once. */
g4_status g4_draft_logits(g4_draft *d, int raw, g4_error *err);
/* Choosing took so long, after `waited` tokens had to be evaluated. */
void g4_draft_measure(g4_draft *d, int waited, double seconds);

/* ---- Choices (choose.c) ---------------------------------------------------------------------------------- */

/* Chooses the tokens of one reply, or one of them. */
typedef struct {
    g4_session *s;
    const g4_sampling *sampling;
    const g4_constraint *constraint; /* NULL: none */
    int start;                       /* of the reply in the timeline */
    int wants_all;                   /* the logits of all tokens are wanted beside the choice */
    int waiting; /* chosen tokens behind the timeline that are not evaluated yet: no logits were needed since */
    g4_draft draft;
} g4_chooser;
g4_status g4_check_choice(const g4_session *s, const g4_sampling *p, const g4_constraint *constraint, g4_error *err);
/* The next token, of which the constraint has been told; -1 when none is allowed. */
g4_status g4_chooser_next(g4_chooser *c, g4_token *token, g4_error *err);
/* Evaluate the tokens that wait, with guesses at what follows if `guess`. */
g4_status g4_chooser_evaluate(g4_chooser *c, int guess, g4_error *err);
/* The log-probability that a logit stands for, and the n best tokens with theirs; log_sum: of g4_log_sum. */
float g4_logprob(float logit, double log_sum);
int g4_top_logprobs(const float *logits, int n_vocab, double log_sum, int n, g4_candidate *out);

/* ---- Constraints of the library's own (chat/guide.c) ------------------------------------------------------- */

/* What generation tells those: `own` of a g4_constraint points to one of these. */
typedef struct {
    /* A reply begins, of a model with so many tokens, in a call with that halt. What this refuses fails, and no end
     * follows. */
    g4_status (*begin)(void *user, uint32_t n_vocab, g4_halt *halt, g4_error *err);
    /* It is over: with that status, of the tokens accepted since `begin` the first n_tokens being in the timeline.
     * Returns status, or what failed while the constraint was asked. */
    g4_status (*end)(void *user, g4_status status, int n_tokens, g4_error *err);
} g4_constraint_hooks;

/* ---- Answers (generate.c) ------------------------------------------------------------------------------- */

/* g4_session_generate within a call that is in the session already and holds a checkpoint: what fails leaves the
 * timeline somewhere between. */
g4_status g4_timeline_generate(g4_session *s, const g4_generate_options *opt, g4_result *out, g4_error *err);

#endif /* GEMMA4_GENERATE_H */
