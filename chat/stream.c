/* stream.c - answers in the words of a dialect, whole or as they come, and the errors in their place. What is alike in
 * all dialects is here: which part goes on, which calls were told, the tokens that wait for an event; how an event
 * looks is in the file of its dialect. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <string.h>

static const struct {
    void (*answer)(g4_buf *b, const g4_answer *c);
    void (*refusal)(g4_buf *b, const g4_refusal *why);
    const g4_stream_form *form;
} g4_dialects[] = { [G4_DIALECT_OPENAI] = { g4_answer_openai, g4_refusal_openai, &g4_stream_openai },
                    [G4_DIALECT_ANTHROPIC] = { g4_answer_anthropic, g4_refusal_anthropic, &g4_stream_anthropic },
                    [G4_DIALECT_COMPLETIONS] = { g4_answer_openai, g4_refusal_openai, &g4_stream_openai },
                    [G4_DIALECT_TOKENS] = { g4_answer_openai, g4_refusal_openai, &g4_stream_openai },
                    [G4_DIALECT_RESPONSES] = { g4_answer_responses, g4_refusal_openai, &g4_stream_responses } };

static g4_status g4_dialect_check(g4_dialect dialect, g4_error *err)
{
    const int n = (int)(sizeof g4_dialects / sizeof g4_dialects[0]), d = (int)dialect;
    if (d >= 0 && d < n) return G4_OK;
    return g4_fail(err, G4_ERR_ARGUMENT, "dialect: expected 0 to %d, found %d", n - 1, d);
}

/* What has been built goes out in one piece, and the buffer is empty again. */
static g4_status g4_words_write(g4_buf *b, g4_write_fn write, void *user, g4_error *err)
{
    const int failed = b->failed, not_written = !failed && b->len > 0 && write(user, b->data, b->len) != 0;
    b->len = 0;
    b->failed = 0;
    if (failed) return g4_fail(err, G4_ERR_MEMORY, "no memory for an answer's text");
    return not_written ? g4_fail(err, G4_ERR_IO, "the answer could not be written") : G4_OK;
}

/* ---- Whole answers and errors -------------------------------------------------------------------- */

static g4_status g4_answer_check(const g4_answer *c, g4_error *err)
{
    if (c == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "answer is NULL");
    if (c->n_parts < 0 || (c->n_parts > 0 && c->parts == NULL))
        return g4_fail(err, G4_ERR_ARGUMENT, "%d parts, and parts is %s", c->n_parts,
                       c->parts == NULL ? "NULL" : "set");
    if (c->n_logprobs < 0 || (c->n_logprobs > 0 && (c->logprobs == NULL || c->engine == NULL)))
        return g4_fail(err, G4_ERR_ARGUMENT, "%d logprobs, and logprobs or engine is NULL", c->n_logprobs);
    return g4_dialect_check(c->dialect, err);
}

g4_status g4_answer_write(const g4_answer *c, g4_write_fn write, void *user, const g4_allocator *a, g4_error *err)
{
    g4_buf b = { .a = a };
    if (write == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "write is NULL");
    g4_status st = g4_answer_check(c, err);
    if (st != G4_OK) return st;
    g4_answer answer = *c;
    answer.is_completion |= c->dialect == G4_DIALECT_COMPLETIONS;
    g4_dialects[c->dialect].answer(&b, &answer);
    g4_buf_str(&b, "\n");
    st = g4_words_write(&b, write, user, err);
    g4_buf_free(&b);
    return st;
}

g4_status g4_refusal_write(g4_dialect dialect, const g4_refusal *why, g4_write_fn write, void *user,
                           const g4_allocator *a, g4_error *err)
{
    g4_buf b = { .a = a };
    if (why == NULL || write == NULL)
        return g4_fail(err, G4_ERR_ARGUMENT, "%s is NULL", why == NULL ? "refusal" : "write");
    g4_status st = g4_dialect_check(dialect, err);
    if (st != G4_OK) return st;
    g4_dialects[dialect].refusal(&b, why);
    g4_buf_str(&b, "\n");
    st = g4_words_write(&b, write, user, err);
    g4_buf_free(&b);
    return st;
}

/* ---- Opening ------------------------------------------------------------------------------------- */

/* A text of the host's that the stream keeps; *text stays NULL where it is. */
static void g4_stream_keep(g4_buf *copy, const char **text)
{
    if (*text == NULL) return;
    g4_buf_add(copy, *text, strlen(*text) + 1);
    *text = copy->data;
}

/* What was built is written, unless something failed before. */
static g4_status g4_stream_send(g4_stream *s, g4_error *err)
{
    if (s->status == G4_OK) s->status = g4_words_write(&s->out, s->write, s->user, err);
    return s->status;
}

g4_status g4_stream_open(g4_stream **out, const g4_stream_options *opt, const g4_allocator *a, g4_error *err)
{
    if (out == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (opt == NULL || opt->answer == NULL || opt->write == NULL)
        return g4_fail(err, G4_ERR_ARGUMENT, "%s is NULL",
                       opt == NULL           ? "options"
                       : opt->answer == NULL ? "answer"
                                             : "write");
    g4_status st = g4_dialect_check(opt->answer->dialect, err);
    if (st == G4_OK && opt->answer->want_logprobs && opt->answer->engine == NULL)
        st = g4_fail(err, G4_ERR_ARGUMENT, "want_logprobs is set, and engine is NULL");
    if (st != G4_OK) return st;
    g4_stream *s = g4_alloc(a, 1, sizeof *s);
    if (s == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for an answer's text");
    s->a = s->out.a = s->text.a = a;
    for (int i = 0; i < 4; i++) s->texts[i].a = a;
    s->form = g4_dialects[opt->answer->dialect].form;
    s->answer = *opt->answer;
    s->answer.created = g4_answer_created(opt->answer); /* all events have the same */
    s->answer.is_completion |= s->answer.dialect == G4_DIALECT_COMPLETIONS;
    s->include_usage = opt->include_usage;
    s->write = opt->write;
    s->user = opt->user;
    s->index = -1;
    g4_stream_keep(&s->texts[0], &s->answer.model);
    g4_stream_keep(&s->texts[1], &s->answer.fingerprint);
    s->out.failed = s->texts[0].failed || s->texts[1].failed;
    if (!s->out.failed) s->form->open_answer(s);
    st = g4_stream_send(s, err);
    if (st == G4_OK)
        *out = s;
    else
        g4_stream_close(s);
    return st;
}

void g4_stream_close(g4_stream *s)
{
    if (s == NULL) return;
    const g4_allocator *a = s->a;
    g4_buf_free(&s->out);
    g4_buf_free(&s->text);
    for (int i = 0; i < 4; i++) g4_buf_free(&s->texts[i]);
    g4_free(a, s->tokens);
    g4_free(a, s->best);
    g4_free(a, s);
}

/* ---- Parts --------------------------------------------------------------------------------------- */

/* Text for the part that is open, as one event. */
static void g4_stream_add(g4_stream *s, const char *text, size_t n)
{
    if (n == 0) return;
    s->has_text = 1;
    s->form->add(s, text, n);
    g4_stream_send(s, NULL);
}

/* The part that is open ends. Arguments that nobody wrote are an object without members. */
static void g4_stream_close_part(g4_stream *s, int is_cut)
{
    if (s->index < 0) return;
    if (s->part.kind == G4_PART_TOOL_CALL && !s->has_text && !is_cut) g4_stream_add(s, "{}", 2);
    if (s->part.kind == G4_PART_TOOL_CALL && is_cut) s->has_cut_call = 1;
    s->form->close_part(s, is_cut);
    g4_stream_send(s, NULL);
    s->index = -1;
}

/* A part that is to be told: not a call that is known to be none, and of a text that is continued nothing but text. */
static int g4_stream_tells(const g4_stream *s, const g4_part *p)
{
    if (s->answer.is_completion) return p->kind == G4_PART_TEXT;
    if (p->kind == G4_PART_TOOL_CALL) return p->name != NULL && !p->incomplete;
    return p->kind == G4_PART_TEXT || p->kind == G4_PART_THOUGHT;
}

/* A part begins with this piece of it; one that has nothing yet waits for what it will have. */
static void g4_stream_open_part(g4_stream *s, int index, const g4_part *delta)
{
    const int is_call = delta->kind == G4_PART_TOOL_CALL;
    if (index != s->index) g4_stream_close_part(s, 0);
    s->n_calls += is_call;
    if (!g4_stream_tells(s, delta) || (!is_call && g4_part_len(delta) == 0)) return;
    s->n_told++;
    s->n_told_calls += is_call;
    s->index = index;
    s->part = (g4_part) { .kind = delta->kind, .name = is_call ? delta->name : NULL, .id = is_call ? delta->id : NULL };
    s->texts[2].len = s->texts[3].len = 0;
    g4_stream_keep(&s->texts[2], &s->part.name);
    g4_stream_keep(&s->texts[3], &s->part.id);
    s->has_text = 0;
    if (s->texts[2].failed || s->texts[3].failed) s->out.failed = 1;
    if (!s->out.failed) s->form->open_part(s, &s->part);
    g4_stream_send(s, NULL);
}

int g4_stream_part(void *stream, int index, const g4_part *delta)
{
    g4_stream *s = stream;
    if (s == NULL || delta == NULL || s->is_over || s->status != G4_OK) return 1;
    if (index != s->index) g4_stream_open_part(s, index, delta);
    if (index != s->index) return s->status != G4_OK;
    /* what makes the arguments of a cut call whole would make it look like one that may be carried out */
    if (!delta->incomplete || s->part.kind != G4_PART_TOOL_CALL) g4_stream_add(s, delta->text, g4_part_len(delta));
    if (delta->incomplete) g4_stream_close_part(s, 1);
    return s->status != G4_OK;
}

/* ---- Tokens -------------------------------------------------------------------------------------- */

/* Room for one more token with n candidates; those before it find theirs where they are now. Returns 0 when out of
 * memory. */
static int g4_stream_token_room(g4_stream *s, int n)
{
    g4_token_logprob *tokens = g4_array_grow(s->a, s->tokens, s->n_tokens, &s->cap_tokens, sizeof *tokens);
    if (tokens == NULL) return 0;
    s->tokens = tokens;
    if (s->cap_best - s->n_best >= n) return 1;
    while (s->cap_best - s->n_best < n) {
        g4_candidate *best = g4_array_grow(s->a, s->best, s->cap_best, &s->cap_best, sizeof *best);
        if (best == NULL) return 0;
        s->best = best;
    }
    const g4_candidate *top = s->best;
    for (int i = 0; i < s->n_tokens; top += tokens[i++].n_top) tokens[i].top = top;
    return 1;
}

int g4_stream_token(void *stream, const g4_output *o)
{
    g4_stream *s = stream;
    if (s == NULL || o == NULL || s->is_over || s->status != G4_OK) return 1;
    if (!s->answer.want_logprobs || o->token < 0) return 0; /* -1: text that was held back */
    if (s->n_tokens == 0) s->n_best = 0;
    const int n = o->n_top > 0 ? o->n_top : 0;
    if (!g4_stream_token_room(s, n)) {
        s->status = G4_ERR_MEMORY;
        return 1;
    }
    g4_candidate *best = s->best + s->n_best;
    if (n > 0) memcpy(best, o->top, (size_t)n * sizeof *best);
    s->n_best += n;
    s->tokens[s->n_tokens++] = (g4_token_logprob) { .token = o->token, .logprob = o->logprob, .top = best, .n_top = n };
    return 0;
}

/* ---- The end ------------------------------------------------------------------------------------- */

/* What failed first, in words. */
static g4_status g4_stream_outcome(const g4_stream *s, g4_error *err)
{
    if (s->status == G4_ERR_MEMORY) return g4_fail(err, s->status, "no memory for an answer's text");
    return s->status != G4_OK ? g4_fail(err, s->status, "the answer could not be written") : G4_OK;
}

/* May an answer have its end now? */
static g4_status g4_stream_check(const g4_stream *s, g4_error *err)
{
    if (s == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "stream is NULL");
    if (s->is_over) return g4_fail(err, G4_ERR_ARGUMENT, "this answer has its end already");
    return g4_stream_outcome(s, err);
}

g4_status g4_stream_end(g4_stream *s, const g4_answer *answer, g4_error *err)
{
    g4_status st = g4_stream_check(s, err);
    if (st == G4_OK) st = g4_answer_check(answer, err);
    if (st != G4_OK) return st;
    g4_answer c = *answer;
    c.id = s->answer.id;
    c.created = s->answer.created;
    c.model = s->answer.model;
    c.fingerprint = s->answer.fingerprint;
    c.is_completion = s->answer.is_completion;
    c.dialect = s->answer.dialect;
    c.request = s->answer.request;
    c.choice = s->answer.choice;
    c.has_more = s->answer.has_more;
    g4_stream_close_part(s, 0);
    s->form->close_answer(s, &c);
    g4_stream_send(s, NULL);
    s->is_over = 1;
    return g4_stream_outcome(s, err);
}

g4_status g4_stream_refuse(g4_stream *s, const g4_refusal *why, g4_error *err)
{
    g4_status st = g4_stream_check(s, err);
    if (st == G4_OK && why == NULL) st = g4_fail(err, G4_ERR_ARGUMENT, "refusal is NULL");
    if (st != G4_OK) return st;
    s->form->refuse(s, why);
    g4_stream_send(s, NULL);
    s->is_over = 1;
    return g4_stream_outcome(s, err);
}
