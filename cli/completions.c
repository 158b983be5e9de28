/* completions.c - /v1/completions: one text that goes on is answered like a chat; several, and a prompt that is to be
 * repeated with its probabilities, become the choices of one object, or of one stream, one after another. Probabilities
 * of a prompt need all its logits, which an answer in a batch does not have: it is read in a session of its own, one
 * request at a time. */
#include "serve.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_PROMPTS = 256, MAX_TOP = 64 };

typedef struct {
    int n_prompts, next; /* the one that is answered */
    int is_refused;      /* the client was told what is wrong */
    uint64_t id;         /* of the stream */
    buffer choices, begin;
    long long prompt_tokens, cached_tokens, answer_tokens;
} completion_list;

/* ---- The prompt, repeated ---------------------------------------------------------------------------------------- */

typedef struct {
    request_work *work;
    int first; /* token that is told: BOS that we have put in front is not of the prompt */
} prompt_echo;

static void echo_token(prompt_echo *e, int index, const float *logits)
{
    request_work *w = e->work;
    const g4_engine *engine = w->shop->engine;
    g4_candidate top[MAX_TOP];
    char bytes[256];
    g4_token_logprob t = { .token = w->prompt.tokens[index], .logprob = NAN };
    if (index < e->first) return;
    if (logits != NULL) {
        t.logprob = g4_logits_logprob(engine, logits, t.token);
        t.n_top = g4_logits_top(engine, logits, g4_request_get(w->request)->n_top, top);
    }
    buffer_add(&w->writer.text, bytes, g4_token_bytes(engine, t.token, 0, bytes));
    if (w->args.logprobs < 0) return;
    const g4_output o = { .token = t.token, .logprob = t.logprob, .top = top, .n_top = t.n_top };
    if (w->writer.stream != NULL) g4_stream_token(w->writer.stream, &o);
    buffer_add(&w->writer.tokens, &t, sizeof t);
    buffer_add(&w->writer.best, top, (size_t)t.n_top * sizeof *top);
}

/* What follows a token says how probable the next one was. */
static int on_row(void *user, int index, const float *logits)
{
    prompt_echo *e = user;
    if (index + 1 < e->work->prompt.n) echo_token(e, index + 1, logits);
    return e->work->writer.tokens.failed;
}

static g4_status read_prompt(prompt_echo *e, g4_session *s)
{
    request_work *w = e->work;
    echo_token(e, 0, NULL);
    if (w->args.logprobs >= 0) return g4_session_eval_all(s, &w->prompt, on_row, e, &w->error);
    for (int i = 1; i < w->prompt.n; i++) echo_token(e, i, NULL);
    return g4_session_eval_prompt(s, &w->prompt, &w->error);
}

/* The first event of a stream, with all its tokens. */
static void tell_prompt(request_work *w)
{
    const buffer *text = &w->writer.text;
    g4_stream_part(w->writer.stream, 0,
                   &(g4_part) { .kind = G4_PART_TEXT, .text = buffer_text(text), .text_len = text->len });
}

/* The prompt and what follows it, into the writer. */
static void answer_alone(connection *c, served_job *j)
{
    request_work *w = &j->work;
    const g4_request_prompt *p = &g4_request_get(w->request)->prompts[w->which];
    prompt_echo echo = { .work = w, .first = p->text != NULL };
    g4_session_options opt = w->shop->session;
    g4_session *s = NULL;
    const double began = seconds_now();
    opt.limits = w->limits;
    w->writer.request = w->request;
    w->generate = answer_options(&w->writer, NULL, &w->sampling);
    pthread_mutex_lock(&c->s->alone);
    w->status = g4_session_open(&s, w->shop->engine, &opt, &w->error);
    if (w->status == G4_OK) w->status = read_prompt(&echo, s);
    if (w->status == G4_OK && w->writer.stream != NULL) tell_prompt(w);
    if (w->status == G4_OK) w->status = g4_session_generate(s, &w->generate, &w->figures.result, &w->error);
    g4_session_close(s);
    pthread_mutex_unlock(&c->s->alone);
    w->figures.prompt_seconds = seconds_now() - began - w->figures.result.seconds;
}

/* ---- Choices ----------------------------------------------------------------------------------------------------- */

/* The choice of an answer's object becomes one of several: what stands before its index is the same in all. */
static int add_choice(completion_list *l, const buffer *object)
{
    static const char before[] = "\"choices\":[{\"index\":0", after[] = "],\"usage\":{";
    char *from = strstr(buffer_text(object), before), *to = NULL;
    for (char *at = from; at != NULL && (at = strstr(at, after)) != NULL; at++) to = at;
    if (to == NULL) return 0;
    if (l->begin.len == 0) buffer_add(&l->begin, object->data, (size_t)(from - object->data));
    from += sizeof before - 1;
    buffer_fmt(&l->choices, "%s{\"index\":%d", l->choices.len > 0 ? "," : "", l->next);
    buffer_add(&l->choices, from, (size_t)(to - from));
    return 1;
}

static void add_answer(connection *c, completion_list *l, served_job *j)
{
    request_work *w = &j->work;
    buffer object = { 0 };
    if (request_answer(w, &object) != DONE || !add_choice(l, &object)) {
        connection_error(c, 500, NULL, "the answer could not be written");
        l->is_refused = 1;
    }
    l->prompt_tokens += w->prompt.n;
    l->cached_tokens += w->figures.reused;
    l->answer_tokens += w->figures.result.n_tokens;
    buffer_free(&object);
}

static void answer_one(connection *c, served_job *j, void *user)
{
    completion_list *l = user;
    request_work *w = &j->work;
    w->which = l->next;
    w->writer.id = atomic_fetch_add(&c->s->next_id, 1);
    l->is_refused = 1;
    if (job_make_ready(j, &c->request.body) == G4_OK) {
        if (g4_request_get(w->request)->echo)
            answer_alone(c, j);
        else if (!job_wait(c, j))
            return;
        job_forgive_lateness(w);
    }
    if (w->status != G4_OK) {
        job_refuse(c, j);
        return;
    }
    l->is_refused = 0;
    add_answer(c, l, j);
    trace_add(c->s, j, c->request.path, "answered");
}

/* The next choice of a stream. */
static void stream_one(connection *c, served_job *j, void *user)
{
    completion_list *l = user;
    request_work *w = &j->work;
    w->which = j->choice = l->next;
    w->writer.id = l->id;
    j->has_more = l->next + 1 < l->n_prompts;
    j->prompt_before = (int)l->prompt_tokens;
    j->cached_before = (int)l->cached_tokens;
    j->answer_before = (int)l->answer_tokens;
    job_make_ready(j, &c->request.body);
    job_answer_choice(c, j, g4_request_get(w->request)->echo ? answer_alone : NULL);
    l->is_refused = w->status != G4_OK;
    l->prompt_tokens += w->prompt.n;
    l->cached_tokens += w->figures.reused;
    l->answer_tokens += w->figures.result.n_tokens;
    trace_add(c->s, j, c->request.path, l->is_refused ? "refused" : "answered");
}

static void stream_list(connection *c, int n_prompts)
{
    completion_list l = { .n_prompts = n_prompts, .id = atomic_fetch_add(&c->s->next_id, 1) };
    for (; l.next < l.n_prompts && !l.is_refused && !c->is_lost; l.next++) job_serve(c, stream_one, &l);
}

static void answer_list(connection *c, int n_prompts)
{
    completion_list l = { .n_prompts = n_prompts };
    buffer b = { 0 };
    for (; l.next < l.n_prompts && !l.is_refused && !c->is_lost; l.next++) job_serve(c, answer_one, &l);
    if (!l.is_refused && !c->is_lost) {
        buffer_add(&b, buffer_text(&l.begin), l.begin.len);
        buffer_fmt(&b, "\"choices\":[%s],\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,",
                   buffer_text(&l.choices), l.prompt_tokens, l.answer_tokens);
        buffer_fmt(&b, "\"total_tokens\":%lld,\"prompt_tokens_details\":{\"cached_tokens\":%lld}}}\n",
                   l.prompt_tokens + l.answer_tokens, l.cached_tokens);
        b.failed |= l.begin.failed | l.choices.failed;
        connection_answer(c, 200, NULL, &b, NULL);
    }
    buffer_free(&b);
    buffer_free(&l.begin);
    buffer_free(&l.choices);
}

typedef struct {
    int n_prompts; /* 0: it has been answered */
    int streams;
} completion_asked;

/* Answer what is one text; else only learn how many there are. */
static void look(connection *c, served_job *j, void *user)
{
    completion_asked *asked = user;
    request_work *w = &j->work;
    const g4_status status = job_make_ready(j, &c->request.body);
    const g4_request_info *info = g4_request_get(w->request);
    if (status == G4_OK && (info->n_prompts > 1 || info->echo)) {
        if (info->n_prompts > MAX_PROMPTS)
            request_wrong(w, G4_ERR_ARGUMENT, "prompt", "prompt: expected at most %d, found %d", MAX_PROMPTS,
                          info->n_prompts);
        else if (info->echo && info->schema != NULL)
            request_wrong(w, G4_ERR_ARGUMENT, "echo", "echo: expected false beside response_format");
        else
            asked->n_prompts = info->n_prompts;
    }
    asked->streams = asked->n_prompts > 0 && info->stream;
    if (asked->n_prompts == 0) job_answer_ready(c, j);
}

void answer_completion(connection *c)
{
    completion_asked asked = { 0 };
    job_serve(c, look, &asked);
    if (asked.streams)
        stream_list(c, asked.n_prompts);
    else if (asked.n_prompts > 0)
        answer_list(c, asked.n_prompts);
}
