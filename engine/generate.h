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
    int asked;                   /* guesses in the pass that is asked for */
    int ahead, row;              /* guesses not yet confirmed; row of the present state */
    int length, rest, next_rest; /* guesses to make next time; tokens to wait first, and next time */
    double one, batch, gain;     /* seconds of a token alone, of the last batch, and what a batch gained lately */
} g4_draft;
void g4_draft_open(g4_draft *d, g4_session *s, int wanted);
void g4_draft_close(g4_draft *d);
/* A token was chosen: is it what was guessed, so that it is evaluated already? Else the guesses are forgotten. */
int g4_draft_accept(g4_draft *d, g4_token token);
/* Begin to evaluate the `waiting` tokens behind the timeline, above 0, with guesses at what follows if `guess`. Of
 * those before the last only keys and values are needed. g4_draft_passed must follow also when that fails. */
g4_status g4_draft_begin(g4_draft *d, g4_stretch *r, int waiting, int guess, g4_error *err);
/* They have been evaluated, and the state behind the last one is there; or that failed. Returns status. */
g4_status g4_draft_passed(g4_draft *d, g4_stretch *r, g4_status status);
/* The final states (n, hidden) of the last position and behind the guesses, whose logits are computed together; 0:
 * there are no guesses, or their logits are there. */
int g4_draft_states(const g4_draft *d, const float **states);
float *g4_draft_room(const g4_draft *d); /* (n, pad16(vocab)): for their softcapped logits */
void g4_draft_take_logits(g4_draft *d);  /* which are there now */
/* Logits of the last position, raw ones if `raw` will do, and at the same time those behind the guesses: the weights of
 * the head are read once. */
g4_status g4_draft_logits(g4_draft *d, int raw, g4_error *err);
/* Choosing took so long, after `waited` tokens had to be evaluated. */
void g4_draft_measure(g4_draft *d, int waited, double seconds);

/* ---- Choices (choose.c) ---------------------------------------------------------------------------------- */

#define G4_FEW 1024 /* tokens up to which a choice looks at them alone */

typedef enum { /* what the next token waits for */
               G4_AWAIT_NOTHING,
               G4_AWAIT_PASS, /* a forward pass over the positions of `stretch` */
               G4_AWAIT_HEAD  /* logits behind the state that is ready */
} g4_await;
typedef enum { /* how far a choice has come: */
               G4_CHOICE_BEGINS,
               G4_CHOICE_PASSED, /* what waited is evaluated */
               G4_CHOICE_HEADED, /* the logits are there */
               G4_CHOICE_MADE
} g4_choice_stage;

/* Chooses the tokens of one reply, or one of them. */
typedef struct {
    g4_session *s;
    const g4_sampling *sampling;
    const g4_constraint *constraint; /* NULL: none */
    int start;                       /* of the reply in the timeline */
    int wants_all;                   /* the logits of all tokens are wanted beside the choice */
    int waiting; /* chosen tokens behind the timeline that are not evaluated yet: no logits were needed since */
    g4_draft draft;
    /* The choice that is being made: */
    g4_choice_stage stage;
    g4_stretch stretch; /* the pass that it needs */
    int waited;         /* tokens that had to be evaluated */
    double since;       /* when it asked for the model */
    g4_token token;     /* chosen; -1: none is allowed */
    int n_few;          /* what the constraint allows, in few, ascending; -1: more than G4_FEW */
    int by_few;         /* only the logits of those are computed */
    g4_token few[G4_FEW];
} g4_chooser;
g4_status g4_check_choice(const g4_session *s, const g4_sampling *p, const g4_constraint *constraint, g4_error *err);
/* The next token, of which the constraint has been told; -1 when none is allowed. Or else *need says what it waits for:
 * when that is there, call again. */
g4_status g4_chooser_next(g4_chooser *c, g4_token *token, g4_await *await, g4_error *err);
/* Ask for a pass over the tokens that wait, with guesses at what follows if `guess`. */
g4_status g4_chooser_evaluate(g4_chooser *c, int guess, g4_await *await, g4_error *err);
/* The pass is over, or failed. Returns status. */
g4_status g4_chooser_passed(g4_chooser *c, g4_status status);
/* The states whose logits of all tokens are needed, and where they go: of the last position raw ones, or with it those
 * behind guesses, softcapped (there is no group_max). Returns their number, at most G4_HEAD_ROWS; 0: of few tokens
 * only. */
int g4_chooser_head_rows(const g4_chooser *c, g4_head_row *rows);
void g4_chooser_take_logits(g4_chooser *c); /* they are there */
/* Do what is needed, for this choice alone. */
g4_status g4_chooser_serve(g4_chooser *c, g4_await await, g4_error *err);
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

#define G4_GUARD_PERIOD 256 /* longest block of tokens whose repetition is looked for */
#define G4_MAX_TOP 64       /* candidates told with a token at most */

typedef struct {
    g4_session *s;
    const g4_generate_options *opt;
    g4_sampling recommended; /* used where the options name none */
    g4_result result;
    double since;
    int stopped;
    g4_chooser next;
    g4_utf8 utf8;
    g4_buf pending;                /* complete characters not yet output: they may begin a stop string */
    int same[G4_GUARD_PERIOD + 1]; /* tokens in a row equal to the one `period` before */
    g4_candidate top[G4_MAX_TOP];
} g4_reply;
/* Begin a reply in a session in whose call it is. What fails needs no close. */
g4_status g4_reply_open(g4_reply *r, g4_session *s, const g4_generate_options *opt, g4_error *err);
/* Choose and tell tokens until the model is needed: do what `need` says and call again. When nothing is needed the
 * reply is over, and all of it evaluated. */
g4_status g4_reply_go_on(g4_reply *r, g4_await *await, g4_error *err);
/* After it is over or failed with that status: the rest of the text is told, and r->result filled. Returns status, or
 * what failed in the constraint. */
g4_status g4_reply_close(g4_reply *r, g4_status status, g4_error *err);

/* g4_session_generate within a call that is in the session already and holds a checkpoint: what fails leaves the
 * timeline somewhere between. */
g4_status g4_timeline_generate(g4_session *s, const g4_generate_options *opt, g4_result *out, g4_error *err);

/* ---- Batches (batch.c) --------------------------------------------------------------------------------------- */

/* The answer, or what there is of it, before its session keeps it: user is the request's. Returns status, or what
 * failed now, so that the session becomes what it was. Called once for each session that is added, before `done`. */
typedef g4_status (*g4_batch_finish_fn)(void *user, g4_status status, g4_result *result, g4_error *err);
/* g4_batch_add, and what chats want beside: marks in the timeline as it is read. */
typedef struct {
    const int *marks; /* (n_marks): positions of the prompt, ascending */
    int n_marks;
    g4_batch_finish_fn finish;
} g4_batch_more;
g4_status g4_batch_add_more(g4_batch *b, g4_session *s, const g4_batch_request *r, const g4_batch_more *more,
                            g4_error *err);

/* Who encodes media of engine e for a batch with that halt lets it step meanwhile. What a step could fail with, its
 * own limits, the next one says again. It must stay as long as the halt. */
typedef struct {
    g4_batch *b;
    g4_halt *halt;
    double since; /* the last step, on the clock of g4_seconds */
} g4_batch_rest;
void g4_batch_rest_open(g4_batch_rest *rest, g4_batch *b, const g4_engine *e, g4_halt *halt);

#endif /* GEMMA4_GENERATE_H */
