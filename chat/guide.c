/* guide.c - what may come next in an answer, and the answer itself. A guide follows the control tokens of an answer and
 * lays the right mask over each place: a thought that has used up its budget is closed, the text after it follows the
 * grammar, a call follows the declared parameters, and so on. Where nothing is asked for, nothing is masked. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <stdatomic.h>
#include <string.h>

typedef enum { G4_AT_TEXT, G4_AT_THOUGHT, G4_AT_CALL, G4_AFTER_CALL } g4_guide_phase;

typedef struct { /* how far an answer has come */
    g4_guide_phase phase;
    int n_channels;     /* opened so far */
    int has_begun;      /* the answer's text or a call has */
    int thought_tokens; /* of the thought so far */
    int line_ended;     /* its last token ended a line */
    int n;              /* tokens so far */
    int first;          /* of them, that of the text which follows a grammar */
} g4_guide_place;

struct g4_guide {
    const g4_allocator *a;
    const g4_config *config;
    const g4_tokenizer *t;
    g4_grammar *grammar, *tools; /* NULL: free */
    int owns_tools;              /* tools is this guide's to close */
    g4_tool_choice tool_choice;
    int think_budget; /* 0: none */
    int thinking;     /* thinking is on */
    int is_text;      /* the reply is text that follows the grammar, not an answer to a chat */
    g4_guide_place at;
    g4_token *tokens; /* (at.n) of the answer */
    int cap_tokens;
    g4_grammar *known; /* the state of this grammar behind the first n_known tokens is known; NULL: of none */
    int32_t state;
    int n_known, known_first;
    uint32_t generation; /* of the states of that grammar */
    g4_controls controls;
    g4_token newline;
    g4_constraint constraint;
    g4_guide_place before; /* where the reply began that is being made */
    g4_halt *halt;         /* of the call that makes it */
    g4_error why;          /* what failed in it */
    atomic_int busy;       /* it is being made */
};

/* ---- Masks --------------------------------------------------------------------------------------- */

static void g4_mask_clear(uint32_t *mask, int n_vocab) { memset(mask, 0, g4_mask_words(n_vocab) * sizeof *mask); }

static void g4_guide_allow(const g4_guide *g, uint32_t *mask, g4_control control)
{
    g4_mask_allow(mask, g->controls.id[control]);
}

static void g4_guide_forbid(const g4_guide *g, uint32_t *mask, g4_control control)
{
    g4_mask_forbid(mask, g->controls.id[control]);
}

/* The i-th id that ends an answer, or -1 past the last. */
static g4_token g4_guide_stop_id(const g4_guide *g, uint32_t i)
{
    const uint32_t max = sizeof g->config->stop / sizeof g->config->stop[0];
    return i < g->config->n_stop && i < max ? (g4_token)g->config->stop[i] : -1;
}

static void g4_guide_allow_stops(const g4_guide *g, uint32_t *mask)
{
    g4_token id;
    for (uint32_t i = 0; (id = g4_guide_stop_id(g, i)) >= 0; i++) g4_mask_allow(mask, id);
}

static void g4_guide_forbid_stops(const g4_guide *g, uint32_t *mask)
{
    g4_token id;
    for (uint32_t i = 0; (id = g4_guide_stop_id(g, i)) >= 0; i++) g4_mask_forbid(mask, id);
}

/* An answer to a chat that calls nothing does not end with <|tool_response>. */
static void g4_guide_allow_text_stops(const g4_guide *g, uint32_t *mask)
{
    g4_token id;
    for (uint32_t i = 0; (id = g4_guide_stop_id(g, i)) >= 0; i++)
        if (g->is_text || id != g->controls.id[G4_CONTROL_RESPONSE]) g4_mask_allow(mask, id);
}

static int g4_guide_must_call(const g4_guide *g)
{
    return g->tool_choice == G4_TOOLS_REQUIRED || g->tool_choice == G4_TOOLS_NAMED;
}

/* Bring g->state up to date: the grammar reads what it has not read. States are kept as long as their grammar knows
 * them; then, and when the answer went back, it reads the text again. After a failure it goes on where it was. */
static void g4_guide_follow(g4_guide *g, g4_grammar *grammar)
{
    const int is_known = g->known == grammar && g->generation == g4_grammar_generation(grammar) &&
                         g->known_first == g->at.first && g->n_known <= g->at.n;
    if (!is_known) {
        g->known = NULL;
        g->state = g4_grammar_start(grammar);
        if (g4_grammar_failed(grammar)) return;
        g->known = grammar;
        g->generation = g4_grammar_generation(grammar);
        g->n_known = g->known_first = g->at.first;
    }
    while (g->n_known < g->at.n) {
        const int32_t next = g4_grammar_read(grammar, g->state, g->tokens[g->n_known]);
        if (g4_grammar_failed(grammar)) return;
        g->state = next;
        g->n_known++;
    }
    g->state = g4_grammar_settle(grammar, g->state);
    g->generation = g4_grammar_generation(grammar);
}

/* The mask of the grammar behind the text so far, and whether that may end there; nonzero when nothing fits, or
 * something failed, which `why` says. */
static int g4_guide_grammar(g4_guide *g, g4_grammar *grammar, uint32_t *mask, int n_vocab, int *accepts)
{
    int is_written = 0;
    *accepts = 0;
    if (g->why.code != G4_OK || g4_grammar_enter(grammar, g->halt, &g->why) != G4_OK) return 1;
    g4_guide_follow(g, grammar);
    if (!g4_grammar_failed(grammar) && g->state > 0 && g4_grammar_n_vocab(grammar) == (uint32_t)n_vocab) {
        is_written = g4_grammar_write_mask(grammar, g->state, mask);
        *accepts = g4_grammar_accepts(grammar, g->state);
    }
    return g4_grammar_leave(grammar, &g->why) != G4_OK || !is_written;
}

/* ---- The phases of an answer --------------------------------------------------------------------- */

static void g4_guide_mask_thought(const g4_guide *g, uint32_t *mask, int n_vocab)
{
    if (g->think_budget > 0 && g->at.thought_tokens >= g->think_budget) { /* the line ends, then the channel */
        g4_mask_clear(mask, n_vocab);
        if (g->at.line_ended)
            g4_guide_allow(g, mask, G4_CONTROL_CHANNEL_END);
        else
            g4_mask_allow(mask, g->newline);
    } else if (g->grammar != NULL || g4_guide_must_call(g)) { /* what is asked for comes behind the thought */
        g4_guide_forbid_stops(g, mask);
        g4_guide_forbid(g, mask, G4_CONTROL_CHANNEL);
        g4_guide_forbid(g, mask, G4_CONTROL_CALL);
    }
}

static int g4_guide_mask_call(g4_guide *g, uint32_t *mask, int n_vocab)
{
    int accepts;
    if (g->tools == NULL) return 0;
    if (g4_guide_grammar(g, g->tools, mask, n_vocab, &accepts)) return 1;
    if (accepts) g4_guide_allow(g, mask, G4_CONTROL_CALL_END);
    return 0;
}

/* Another call, or the host's turn. */
static void g4_guide_mask_after_call(const g4_guide *g, uint32_t *mask, int n_vocab)
{
    if (g->tools == NULL && !g4_guide_must_call(g)) return;
    g4_mask_clear(mask, n_vocab);
    g4_guide_allow_stops(g, mask);
    if (g->tool_choice != G4_TOOLS_NAMED) g4_guide_allow(g, mask, G4_CONTROL_CALL);
}

static int g4_guide_mask_text(g4_guide *g, uint32_t *mask, int n_vocab)
{
    const int may_think = g->thinking && !g->at.has_begun && g->at.n_channels == 0;
    int accepts;
    if (g4_guide_must_call(g)) {
        g4_mask_clear(mask, n_vocab);
        g4_guide_allow(g, mask, G4_CONTROL_CALL);
        if (may_think) g4_guide_allow(g, mask, G4_CONTROL_CHANNEL);
    } else if (g->grammar != NULL) {
        if (g4_guide_grammar(g, g->grammar, mask, n_vocab, &accepts)) return 1;
        if (accepts) g4_guide_allow_text_stops(g, mask);
        if (may_think) g4_guide_allow(g, mask, G4_CONTROL_CHANNEL);
        if (g->tools != NULL && !g->at.has_begun) g4_guide_allow(g, mask, G4_CONTROL_CALL);
    } else if (g->tool_choice == G4_TOOLS_NONE) {
        g4_guide_forbid(g, mask, G4_CONTROL_CALL);
    }
    return 0;
}

/* Room for one more token; returns 0, and `why` says so, when out of memory. */
static int g4_guide_reserve(g4_guide *g)
{
    g4_token *tokens = g4_array_grow(g->a, g->tokens, g->at.n, &g->cap_tokens, sizeof *tokens);
    if (tokens != NULL)
        g->tokens = tokens;
    else
        g4_fail(&g->why, G4_ERR_MEMORY, "no memory for the tokens of a guided answer");
    return tokens != NULL;
}

static int g4_guide_mask(void *user, uint32_t *mask, int n_vocab)
{
    g4_guide *g = user;
    if (!atomic_load(&g->busy)) g->why = (g4_error) { 0 }; /* asked by a loop of the caller's own */
    if (!g4_guide_reserve(g)) return 1;
    switch (g->at.phase) {
    case G4_AT_TEXT: return g4_guide_mask_text(g, mask, n_vocab);
    case G4_AT_CALL: return g4_guide_mask_call(g, mask, n_vocab);
    case G4_AT_THOUGHT: g4_guide_mask_thought(g, mask, n_vocab); break;
    case G4_AFTER_CALL: g4_guide_mask_after_call(g, mask, n_vocab); break;
    }
    return 0;
}

static void g4_guide_step_thought(g4_guide *g, g4_token token, g4_control control)
{
    char piece[256];
    int special;
    g->at.thought_tokens++;
    if (control == G4_CONTROL_CHANNEL_END) {
        g->at.phase = G4_AT_TEXT;
        g->at.first = g->at.n;
        return;
    }
    const size_t n = g4_tokenizer_piece(g->t, token, piece, &special);
    g->at.line_ended = !special && n > 0 && piece[n - 1] == '\n';
}

/* The answer goes on with its token number at.n. */
static void g4_guide_step(g4_guide *g)
{
    const g4_token token = g->tokens[g->at.n++];
    const g4_control control = g4_controls_find(&g->controls, token);
    if (g->is_text) return;
    if (g->at.phase == G4_AT_THOUGHT) {
        g4_guide_step_thought(g, token, control);
    } else if (control == G4_CONTROL_CHANNEL) {
        g->at.phase = G4_AT_THOUGHT;
        g->at.n_channels++;
        g->at.thought_tokens = g->at.line_ended = 0;
    } else if (control == G4_CONTROL_CALL) {
        g->at.phase = G4_AT_CALL;
        g->at.has_begun = 1;
        g->at.first = g->at.n;
    } else if (g->at.phase == G4_AT_CALL) {
        if (control == G4_CONTROL_CALL_END) g->at.phase = G4_AFTER_CALL;
    } else if (g->at.phase == G4_AT_TEXT) {
        g->at.has_begun = 1;
    }
}

static void g4_guide_accept(void *user, g4_token token)
{
    g4_guide *g = user;
    if (!g4_guide_reserve(g)) return; /* the mask has made room for it */
    g->tokens[g->at.n] = token;
    g4_guide_step(g);
}

/* ---- A reply is made under the guide --------------------------------------------------------------- */

static g4_status g4_guide_begin(void *user, uint32_t n_vocab, g4_halt *halt, g4_error *err)
{
    g4_guide *g = user;
    if (g->t->n_vocab != n_vocab)
        return g4_fail(err, G4_ERR_ARGUMENT, "the guide was opened for a vocabulary of %u tokens, the model has %u",
                       g->t->n_vocab, n_vocab);
    if (atomic_exchange(&g->busy, 1))
        return g4_fail(err, G4_ERR_ARGUMENT, "this guide is in a call already: it serves one reply at a time");
    g->before = g->at;
    g->halt = halt;
    g->why = (g4_error) { 0 };
    return G4_OK;
}

/* A reply that failed leaves the guide where it was, one that was cancelled behind what is in the timeline. */
static g4_status g4_guide_end(void *user, g4_status status, int n_tokens, g4_error *err)
{
    g4_guide *g = user;
    if (status == G4_OK && g->why.code != G4_OK) status = g4_fail(err, g->why.code, "%s", g->why.message);
    if (status != G4_OK) {
        const int end = g4_min_int(g->at.n, g->before.n + (status == G4_ERR_CANCELED ? n_tokens : 0));
        g->at = g->before;
        while (g->at.n < end) g4_guide_step(g);
        g->known = NULL;
    }
    g->why = (g4_error) { 0 };
    g->halt = NULL;
    atomic_store(&g->busy, 0);
    return status;
}

static const g4_constraint_hooks g4_guide_hooks = { .begin = g4_guide_begin, .end = g4_guide_end };

/* ---- Opening and closing ------------------------------------------------------------------------- */

void g4_guide_close(g4_guide *g)
{
    if (g == NULL || atomic_load(&g->busy)) return;
    if (g->owns_tools) g4_grammar_close(g->tools);
    g4_free(g->a, g->tokens);
    g4_free(g->a, g);
}

static g4_status g4_guide_check_grammar(const g4_engine *e, const g4_grammar *grammar, g4_error *err)
{
    const uint32_t n_vocab = g4_engine_tokenizer(e)->n_vocab;
    if (grammar == NULL || g4_grammar_n_vocab(grammar) == n_vocab) return G4_OK;
    return g4_fail(err, G4_ERR_ARGUMENT, "the grammar was made for a vocabulary of %u tokens, the model has %u",
                   g4_grammar_n_vocab(grammar), n_vocab);
}

static g4_status g4_guide_check(const g4_chat *c, const g4_guide_options *opt, g4_error *err)
{
    const int is_named = opt->tool_choice == G4_TOOLS_NAMED;
    if (g4_chat_engine(c) == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "a chat without an engine has no answers");
    if ((unsigned)opt->tool_choice > G4_TOOLS_NAMED)
        return g4_fail(err, G4_ERR_ARGUMENT, "there is no tool choice %d", (int)opt->tool_choice);
    if (opt->think_budget < 0) return g4_fail(err, G4_ERR_ARGUMENT, "think_budget must not be negative");
    if (is_named && opt->tool_name == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "G4_TOOLS_NAMED needs tool_name");
    if ((is_named || opt->tool_choice == G4_TOOLS_REQUIRED) && !g4_py_truthy(g4_chat_tools(c)))
        return g4_fail(err, G4_ERR_ARGUMENT, "a tool must be called, and the conversation declares none");
    const g4_status st = g4_guide_check_grammar(g4_chat_engine(c), opt->grammar, err);
    return st != G4_OK ? st : g4_guide_check_grammar(g4_chat_engine(c), opt->tools, err);
}

/* Set newline to the token of a line feed, or to -1 when that is not one token. */
static g4_status g4_guide_find_newline(g4_guide *g, g4_error *err)
{
    g4_tokens line = { 0 };
    const g4_status st = g4_tokenizer_encode(g->t, g->a, "\n", 1, 0, &line, NULL, err);
    g->newline = st == G4_OK && line.n == 1 ? line.ids[0] : -1;
    g4_free(g->a, line.ids);
    return st;
}

/* The grammar of calls: the caller's, or one of the declared tools. */
static g4_status g4_guide_find_tools(g4_guide *g, const g4_json *tools, const g4_guide_options *opt, g4_halt *halt,
                                     g4_error *err)
{
    if (!g4_py_truthy(tools) || opt->tool_choice == G4_TOOLS_NONE || opt->loose_tools) return G4_OK;
    g->tools = opt->tools;
    if (g->tools != NULL) return G4_OK;
    g->owns_tools = 1;
    return g4_grammar_tools(&g->tools, g->a, g->t, tools, opt->tool_choice == G4_TOOLS_NAMED ? opt->tool_name : NULL,
                            opt->schema, halt, err);
}

/* A guide that asks for nothing but the grammar. */
static g4_status g4_guide_new(g4_guide **out, const g4_engine *e, g4_grammar *grammar, g4_error *err)
{
    g4_guide *g = g4_alloc(g4_engine_allocator(e), 1, sizeof *g);
    *out = g;
    if (g == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for a guide");
    g->a = g4_engine_allocator(e);
    g->config = g4_engine_config(e);
    g->t = g4_engine_tokenizer(e);
    g->grammar = grammar;
    g->constraint =
        (g4_constraint) { .mask = g4_guide_mask, .accept = g4_guide_accept, .user = g, .own = &g4_guide_hooks };
    g4_controls_bind(&g->controls, g->t);
    return G4_OK;
}

/* halt: of the call that the guide is made in. */
static g4_status g4_guide_make(g4_guide **out, const g4_chat *c, const g4_guide_options *opt, g4_halt *halt,
                               g4_error *err)
{
    g4_guide *g;
    g4_status st = g4_guide_check(c, opt, err);
    if (st == G4_OK) st = g4_halt_check(halt, err);
    if (st == G4_OK) st = g4_guide_new(&g, g4_chat_engine(c), opt->grammar, err);
    if (st != G4_OK) return st;
    g->tool_choice = opt->tool_choice;
    g->think_budget = opt->think_budget;
    g->thinking = g4_chat_thinking(c);
    if (g4_chat_in_thought(c)) {
        g->at.phase = G4_AT_THOUGHT;
        g->at.n_channels = 1;
        g->at.line_ended = 1;
    }
    st = g4_guide_find_newline(g, err);
    if (st == G4_OK) st = g4_guide_find_tools(g, g4_chat_tools(c), opt, halt, err);
    if (st == G4_OK)
        *out = g;
    else
        g4_guide_close(g);
    return st;
}

g4_status g4_guide_open(g4_guide **out, const g4_chat *c, const g4_guide_options *opt, g4_error *err)
{
    static const g4_guide_options defaults = { 0 };
    g4_halt halt;
    if (out == NULL || c == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "%s is NULL", out == NULL ? "out" : "chat");
    *out = NULL;
    return g4_guide_make(out, c, opt != NULL ? opt : &defaults, g4_engine_halt(g4_chat_engine(c), &halt), err);
}

g4_status g4_guide_open_text(g4_guide **out, const g4_engine *e, g4_grammar *grammar, g4_error *err)
{
    if (out == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    g4_status st = g4_engine_check(e, err);
    if (st == G4_OK && grammar == NULL) st = g4_fail(err, G4_ERR_ARGUMENT, "grammar is NULL");
    if (st == G4_OK) st = g4_guide_check_grammar(e, grammar, err);
    if (st == G4_OK) st = g4_guide_new(out, e, grammar, err);
    if (st == G4_OK) (*out)->is_text = 1;
    return st;
}

const g4_constraint *g4_guide_constraint(g4_guide *g)
{
    const int is_asked =
        g != NULL && (g->grammar != NULL || g->tools != NULL || g->think_budget > 0 || g->tool_choice != G4_TOOLS_AUTO);
    return is_asked ? &g->constraint : NULL;
}

/* ---- The answer ---------------------------------------------------------------------------------- */

typedef struct {
    g4_response *response;
    const g4_generate_options *generate; /* the caller's */
} g4_responder;

static int g4_respond_output(void *user, const g4_output *o)
{
    g4_responder *r = user;
    int stop = 0;
    if (r->generate->output != NULL) stop = r->generate->output(r->generate->user, o);
    if (o->token >= 0) stop |= g4_response_push(r->response, o->token);
    return stop;
}

/* A string that ends the answer is found by its reader, which knows what is text. */
static void g4_respond_note_stop(const g4_response *r, g4_result *result)
{
    result->stop_string = g4_response_stop_string(r);
    if (result->stop_string != NULL) result->stop = G4_STOP_STRING;
}

/* How to generate under the guide into the response that is being made. */
static g4_status g4_respond_options_of(g4_responder *r, g4_guide *guide, g4_generate_options *out, g4_error *err)
{
    const g4_constraint *constraint = g4_guide_constraint(guide);
    *out = *r->generate;
    if (constraint != NULL && out->constraint != NULL)
        return g4_fail(err, G4_ERR_ARGUMENT, "a constraint of one's own cannot be combined with a guide");
    if (constraint != NULL) out->constraint = constraint;
    out->output = g4_respond_output;
    out->user = r;
    out->n_stop = 0;
    return G4_OK;
}

static g4_status g4_respond_open(g4_responder *r, const g4_chat *c, int call_deltas, g4_error *err)
{
    const g4_generate_options *opt = r->generate;
    const g4_status st = g4_response_open(&r->response, g4_chat_engine(c), g4_chat_in_thought(c), NULL, NULL, err);
    if (st == G4_OK && call_deltas) g4_response_stream_calls(r->response);
    return st == G4_OK ? g4_response_stop_at(r->response, opt->stop, opt->n_stop, err) : st;
}

static g4_status g4_respond_generate(g4_session *s, g4_guide *guide, g4_responder *r, g4_result *result, g4_error *err)
{
    g4_generate_options generate;
    g4_status st = g4_respond_options_of(r, guide, &generate, err);
    if (st == G4_OK && g4_response_stop_string(r->response) == NULL)
        st = g4_timeline_generate(s, &generate, result, err);
    if (st == G4_OK) g4_respond_note_stop(r->response, result);
    return st;
}

/* Part of the answer is there already, from a call that was cancelled: the reader and the guide learn of it. */
static g4_status g4_respond_resume(g4_response *r, g4_guide *guide, const g4_token *tokens, int n, g4_error *err)
{
    for (int i = 0; i < n; i++) {
        if (g4_response_push(r, tokens[i]) && g4_response_stop_string(r) == NULL)
            return g4_fail(err, G4_ERR_MEMORY, "no memory for the answer");
        g4_guide_accept(guide, tokens[i]);
        if (guide->why.code != G4_OK) return g4_fail(err, guide->why.code, "%s", guide->why.message);
    }
    return G4_OK;
}

/* Why it ends becomes part of the answer: the marker that ended it, or that something cut it off. A stop string ends
 * free text where the caller wants it, and cuts what follows a grammar. */
static g4_status g4_respond_finish(g4_response *r, const g4_result *result, int has_grammar, g4_error *err)
{
    if (result->stop == G4_STOP_END)
        g4_response_feed(r, G4_CONTROL_TURN_END, NULL, 0);
    else if (result->stop != G4_STOP_STRING || has_grammar)
        g4_response_cut(r);
    return g4_response_finish(r, err);
}

/* Generate and take apart. A cancelled answer is finished too: it ends where it was. */
static g4_status g4_respond_make(g4_session *s, const g4_chat *c, const g4_respond_options *opt, g4_responder *r,
                                 g4_result *result, g4_error *err)
{
    g4_guide *guide = NULL;
    int n = 0;
    g4_status st = g4_chat_check_followed(c, s, &n, s->gate->halt, err);
    if (st == G4_OK) st = g4_respond_open(r, c, opt->call_deltas, err);
    if (st == G4_OK) st = g4_guide_make(&guide, c, &opt->guide, s->gate->halt, err);
    if (st == G4_OK) st = g4_respond_resume(r->response, guide, s->tokens + n, s->n - n, err);
    if (st == G4_OK) g4_response_listen(r->response, opt->part, opt->user);
    if (st == G4_OK) st = g4_respond_generate(s, guide, r, result, err);
    if (st == G4_OK) st = g4_respond_finish(r->response, result, opt->guide.grammar != NULL, err);
    if (st == G4_ERR_CANCELED && r->response != NULL) {
        g4_response_cut(r->response);
        if (g4_response_finish(r->response, NULL) != G4_OK)
            st = g4_fail(err, G4_ERR_MEMORY, "no memory for the answer");
    }
    g4_guide_close(guide);
    return st;
}

/* The answer, or what there is of it, or nothing at all and the timeline as it was. */
static g4_status g4_respond_run(g4_session *s, const g4_chat *c, const g4_respond_options *opt, g4_responder *r,
                                g4_result *result, g4_error *err)
{
    g4_checkpoint old;
    g4_status st = g4_checkpoint_take(&old, s, s->n, err);
    if (st != G4_OK) return st;
    st = g4_respond_make(s, c, opt, r, result, err);
    g4_checkpoint_end(&old, s, st);
    if (st == G4_OK || st == G4_ERR_CANCELED) return st;
    g4_response_close(r->response);
    r->response = NULL;
    *result = (g4_result) { .stop_token = -1 };
    return st;
}

g4_status g4_session_respond(g4_session *s, const g4_chat *c, const g4_respond_options *opt, g4_response **out,
                             g4_result *result, g4_error *err)
{
    static const g4_respond_options defaults = { 0 };
    static const g4_generate_options plain = { 0 };
    g4_call call;
    g4_result unread;
    if (out == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (result == NULL) result = &unread;
    *result = (g4_result) { .stop_token = -1 };
    if (opt == NULL) opt = &defaults;
    g4_responder r = { .generate = opt->generate != NULL ? opt->generate : &plain };
    g4_status st = g4_call_begin(&call, s, &r.generate->limits, err);
    if (st == G4_OK) st = g4_respond_run(s, c, opt, &r, result, err);
    if (st == G4_ERR_CANCELED) result->stop = G4_STOP_CANCELED;
    *out = r.response;
    return g4_call_end(&call, st);
}

/* ---- The answer as one of a batch ------------------------------------------------------------------ */

typedef struct {
    g4_batch_respond_request request;
    g4_generate_options generate; /* the caller's */
    g4_responder responder;
    g4_guide *guide;
    int has_grammar;
    const g4_allocator *a;
} g4_batch_answer;

static void g4_batch_answer_free(g4_batch_answer *answer)
{
    g4_guide_close(answer->guide);
    g4_free(answer->a, answer);
}

/* The answer, or what there is of it, is finished. */
static g4_status g4_batch_answer_finish(void *user, g4_status st, g4_result *result, g4_error *err)
{
    const g4_batch_answer *answer = user;
    g4_response *response = answer->responder.response;
    if (st == G4_OK) g4_respond_note_stop(response, result);
    if (st == G4_OK) return g4_respond_finish(response, result, answer->has_grammar, err);
    if (st != G4_ERR_CANCELED) return st;
    g4_response_cut(response);
    return g4_response_finish(response, NULL) == G4_OK ? st : g4_fail(err, G4_ERR_MEMORY, "no memory for the answer");
}

/* It goes to the caller. */
static void g4_batch_answer_done(void *user, g4_session *s, g4_status st, const g4_result *result, const g4_error *err)
{
    g4_batch_answer *answer = user;
    const g4_batch_respond_request request = answer->request;
    g4_response *response = answer->responder.response;
    if (st != G4_OK && st != G4_ERR_CANCELED) {
        g4_response_close(response);
        response = NULL;
    }
    g4_batch_answer_free(answer);
    request.done(request.user, s, st, response, result, err);
}

/* Reader and guide of the answer, and what generation is told. */
static g4_status g4_batch_answer_open(g4_batch_answer *answer, const g4_chat *c, const g4_respond_options *opt,
                                      g4_generate_options *generate, g4_error *err)
{
    g4_halt halt;
    const g4_engine *e = g4_chat_engine(c);
    if (opt->generate != NULL) answer->generate = *opt->generate;
    answer->responder.generate = &answer->generate;
    answer->has_grammar = opt->guide.grammar != NULL;
    g4_status st = g4_respond_open(&answer->responder, c, opt->call_deltas, err);
    if (st == G4_OK) g4_response_listen(answer->responder.response, opt->part, opt->user);
    if (st == G4_OK) st = g4_guide_make(&answer->guide, c, &opt->guide, g4_engine_halt(e, &halt), err);
    return st == G4_OK ? g4_respond_options_of(&answer->responder, answer->guide, generate, err) : st;
}

g4_status g4_batch_respond(g4_batch *b, g4_session *s, g4_chat *c, const g4_batch_respond_request *r, g4_error *err)
{
    static const g4_respond_options defaults = { 0 };
    g4_generate_options generate;
    if (b == NULL || s == NULL || c == NULL || r == NULL || r->done == NULL)
        return g4_fail(err, G4_ERR_ARGUMENT, "%s is NULL",
                       b == NULL   ? "batch"
                       : s == NULL ? "session"
                       : c == NULL ? "chat"
                       : r == NULL ? "request"
                                   : "done");
    if (g4_chat_engine(c) == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "a chat without an engine has no tokens");
    const g4_allocator *a = g4_engine_allocator(g4_chat_engine(c));
    g4_batch_answer *answer = g4_alloc(a, 1, sizeof *answer);
    if (answer == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for an answer");
    answer->a = a;
    answer->request = *r;
    g4_status st = g4_batch_answer_open(answer, c, r->respond != NULL ? r->respond : &defaults, &generate, err);
    const g4_batch_request request = { .generate = &generate, .done = g4_batch_answer_done, .user = answer };
    if (st == G4_OK) st = g4_chat_add_to_batch(c, b, s, &request, g4_batch_answer_finish, err);
    if (st == G4_OK) return G4_OK;
    g4_response_close(answer->responder.response);
    g4_batch_answer_free(answer);
    return st;
}
