/* walk.h - a walk through the masks of a grammar that looks at every step: what a mask allows can be read, what it
 * forbids cannot, and behind every allowed token something is allowed or the text may end. */
#ifndef G4_WALK_H
#define G4_WALK_H

#include "constrained.h"
#include "sampler.h"

enum { G4_WALK_TRIES = 8 }; /* tokens that are looked at beside the one that is taken */
/* Steps of g4_grammar_counts that all walks through a grammar may take: under sanitizers so many last five seconds. */
#define G4_WALK_WORK 8000000

typedef struct {
    const g4_tokenizer *t;
    g4_sampler r;
    uint32_t *mask, *next; /* (words of a mask) */
} g4_walk;

static inline int g4_mask_allows(const uint32_t *mask, g4_token id) { return (int)(mask[id / 32] >> (id % 32) & 1); }

/* Can the text behind this state be brought to an end by more tokens, as far as one step shows? */
static inline int g4_walk_goes_on(g4_walk *w, g4_grammar *g, int32_t state)
{
    return g4_grammar_accepts(g, state) ||
           (g4_grammar_write_mask(g, state, w->next) && g4_mask_count(w->next, w->t->n_vocab) > 0);
}

static inline int g4_walk_is_over(const g4_grammar *g)
{
    g4_grammar_counts counts;
    g4_grammar_count(g, &counts);
    return counts.work > G4_WALK_WORK;
}

/* Some tokens at random, allowed and forbidden ones, are read from this state. NULL, or what is wrong. */
static inline const char *g4_walk_look(g4_walk *w, g4_grammar *g, int32_t state, uint32_t n_allowed)
{
    for (int i = 0; i < G4_WALK_TRIES && !g4_walk_is_over(g); i++) {
        g4_token id = (g4_token)g4_sampler_random(&w->r, w->t->n_vocab);
        if (i % 2 == 0 && n_allowed > 0) id = g4_mask_token(w->mask, g4_sampler_random(&w->r, n_allowed));
        const int32_t next = g4_grammar_read(g, state, id);
        if (g4_grammar_failed(g)) return NULL;
        if (g4_mask_allows(w->mask, id) != (next != 0)) return "mask and reading disagree";
        if (next != 0 && !g4_walk_goes_on(w, g, next)) return g4_grammar_failed(g) ? NULL : "a dead end";
    }
    return NULL;
}

typedef struct {
    g4_buf text;
    g4_token *tokens;
    int n;
    int is_whole; /* it may end where it ends */
} g4_written;

/* One text of at most max tokens, for which there is room. NULL, or what is wrong. Nothing is wrong with a grammar that
 * ran into its limits, which the grammar says when it is left. */
static inline const char *g4_walk_text(g4_walk *w, g4_grammar *g, int max, g4_written *out)
{
    g4_token closers[G4_N_CLOSERS];
    int32_t state = g4_grammar_start(g);
    g4_find_closers(w->t, closers);
    for (int i = 0; i < max && state != 0 && !g4_walk_is_over(g); i++) {
        state = g4_grammar_settle(g, state);
        if (!g4_grammar_write_mask(g, state, w->mask)) return g4_grammar_failed(g) ? NULL : "no mask";
        const uint32_t n_allowed = g4_mask_count(w->mask, w->t->n_vocab);
        const int ends = g4_grammar_accepts(g, state);
        if (n_allowed == 0 && !ends) return "a dead end";
        const char *wrong = g4_walk_look(w, g, state, n_allowed);
        if (wrong != NULL || g4_grammar_failed(g)) return wrong;
        if (n_allowed == 0 || (ends && g4_sampler_random(&w->r, 3) == 0)) {
            out->is_whole = 1;
            return NULL;
        }
        g4_token token = g4_mask_token(w->mask, g4_sampler_random(&w->r, n_allowed));
        for (int k = 0; k < G4_N_CLOSERS; k++)
            if (closers[k] >= 0 && g4_mask_allows(w->mask, closers[k]) && g4_sampler_random(&w->r, 2) == 0)
                token = closers[k];
        char piece[256];
        int special;
        const size_t n = g4_tokenizer_piece(w->t, token, piece, &special);
        g4_buf_add(&out->text, piece, n);
        out->tokens[out->n++] = token;
        state = g4_grammar_read(g, state, token);
        if (g4_grammar_failed(g)) return NULL;
        if (state == 0) return "an allowed token cannot be read";
    }
    return NULL;
}

static inline void g4_walk_open(g4_walk *w, const g4_tokenizer *t)
{
    const size_t words = g4_mask_words((int)t->n_vocab);
    *w = (g4_walk) { .t = t, .r = { .state = 1 } };
    w->mask = calloc(words, sizeof *w->mask);
    w->next = calloc(words, sizeof *w->next);
    if (w->mask == NULL || w->next == NULL) abort();
}

static inline void g4_walk_close(g4_walk *w)
{
    free(w->mask);
    free(w->next);
}

/* ---- Fuzz targets ------------------------------------------------------------------------------- */

/* The engine of a target, opened once: a small vocabulary. */
static inline g4_engine *g4_walk_engine(void)
{
    static g4_engine *e;
    const g4_engine_options opt = { .model_path = "tests/data/tokenizer_small.g4", .n_threads = 1 };
    if (e == NULL && g4_engine_open(&e, &opt, NULL) != G4_OK) abort();
    return e;
}

static inline void g4_walk_wrong(const char *what, const char *source, const char *text)
{
    fprintf(stderr, "%s\nsource: %s\ntext: %s\n", what, source, text != NULL ? text : "");
    __builtin_trap();
}

/* A failure must have a reason, which is not that memory is out. */
static inline void g4_walk_check_reason(g4_status st, const char *source, const g4_error *err)
{
    if (st != G4_OK && (st == G4_ERR_MEMORY || err->message[0] == '\0'))
        g4_walk_wrong("no reason", source, err->message);
}

typedef struct {
    g4_grammar *g;     /* of the source */
    g4_grammar *again; /* another of the same source, or the same; NULL: its syntax cannot be read from text */
    const g4_tokenizer *t;
    const char *source;
    int n_texts, max_tokens;
    /* NULL, or what is wrong with a whole text. */
    const char *(*check)(const void *user, const g4_written *written);
    const void *user;
} g4_walk_plan;

/* A whole text, which the grammar accepts again, cut into the tokens of an encoder. */
static inline void g4_walk_check_text(const g4_walk_plan *p, const g4_written *written)
{
    const char *text = written->text.data != NULL ? written->text.data : "";
    const char *wrong = p->check != NULL ? p->check(p->user, written) : NULL;
    g4_trial trial;
    if (wrong != NULL) g4_walk_wrong(wrong, p->source, text);
    if (p->again == NULL) return;
    g4_trial_run(&trial, p->again, p->t, text, written->text.len, 0, 0);
    if (trial.disagrees) g4_walk_wrong("mask and reading disagree", p->source, text);
    if (trial.err.code == G4_OK && !trial.may_end) g4_walk_wrong("written, and not accepted again", p->source, text);
}

static inline void g4_walk_all(const g4_walk_plan *p)
{
    g4_walk w;
    g4_walk_open(&w, p->t);
    for (int i = 0; i < p->n_texts; i++) {
        g4_written written = { .tokens = calloc((size_t)p->max_tokens, sizeof(g4_token)) };
        g4_error err = { 0 };
        if (written.tokens == NULL) abort();
        if (g4_grammar_enter(p->g, NULL, &err) != G4_OK) g4_walk_wrong(err.message, p->source, NULL);
        const char *wrong = g4_walk_text(&w, p->g, p->max_tokens, &written);
        const g4_status st = g4_grammar_leave(p->g, &err);
        if (wrong != NULL) g4_walk_wrong(wrong, p->source, written.text.data);
        g4_walk_check_reason(st, p->source, &err);
        if (st == G4_OK && written.is_whole) g4_walk_check_text(p, &written);
        g4_buf_free(&written.text);
        free(written.tokens);
    }
    g4_walk_close(&w);
}

#endif
