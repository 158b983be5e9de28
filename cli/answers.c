/* answers.c - the routes of the server that read a prompt: they make it ready on the connection's own thread, hand it
 * to the scheduler, and send what becomes of it. A client that goes ends all of that, wherever it is. */
#include "serve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LOOK_MS = 50 /* between two looks whether the client is still there */, COMMENT_SECONDS = 5 };

/* ---- A request becomes a job ------------------------------------------------------------------------------------- */

static g4_status read_body(served_job *j, const buffer *body)
{
    request_work *w = &j->work;
    const g4_status status = request_read(w, buffer_text(body), body->len);
    if (status != G4_OK) return status;
    const g4_request_info *info = g4_request_get(w->request);
    j->streams = info->stream;
    if (w->dialect != G4_DIALECT_OPENAI || (info->n_prompts == 0 && info->custom_id == NULL)) return G4_OK;
    return request_wrong(w, G4_ERR_ARGUMENT, "messages", "messages: expected a list of messages, found none");
}

g4_status job_check_length(request_work *w, const char *field)
{
    const int n_ctx = context_size(w->shop->args, &w->shop->info);
    if (w->prompt.n < n_ctx) return G4_OK;
    return request_wrong(w, G4_ERR_CONTEXT, field,
                         "the prompt has %d tokens, the context %d: there is no room for an answer", w->prompt.n,
                         n_ctx);
}

g4_status job_make_ready(served_job *j, const buffer *body)
{
    request_work *w = &j->work;
    g4_status status = read_body(j, body);
    if (status == G4_OK) status = request_prompt(w, "-");
    if (status == G4_OK) status = job_check_length(w, w->chat != NULL ? "messages" : "prompt");
    if (status == G4_OK) status = request_guide(w);
    return w->status = status;
}

static g4_refusal refusal_of(const request_work *w)
{
    return (g4_refusal) { .status = w->status, .message = w->error.message, .param = w->param };
}

static g4_status wrong_for_time(request_work *w)
{
    return request_wrong(w, G4_ERR_CANCELED, NULL, "the answer did not begin within the %g seconds of --timeout",
                         w->shop->args->timeout);
}

static void refuse_request(connection *c, request_work *w)
{
    if (w->status == G4_ERR_CANCELED) wrong_for_time(w); /* by nobody else, for its client is there */
    g4_refusal why = refusal_of(w);
    if (w->status == G4_ERR_CANCELED) why.http = 503;
    connection_refuse(c, &why);
}

/* ---- The job on its way ------------------------------------------------------------------------------------------ */

static int is_gone(const served_job *j) { return atomic_load(&j->has_gone); }

static struct timespec soon(void)
{
    struct timespec t;
    clock_gettime(WAIT_CLOCK, &t);
    t.tv_nsec += LOOK_MS * 1000000L;
    t.tv_sec += t.tv_nsec / 1000000000L;
    t.tv_nsec %= 1000000000L;
    return t;
}

typedef struct { /* the events of a job on their way to its client */
    connection *c;
    double sent; /* when something was, the last time */
} event_sender;

/* As one chunk, behind the head if they are the first; what is too old for chunks gets them as they are. */
static void send_events(event_sender *e, const char *data, size_t len)
{
    connection *c = e->c;
    buffer b = { 0 };
    const int is_chunked = c->request.minor > 0;
    if (!c->has_head) {
        if (!is_chunked || atomic_load(&c->s->drains) || !c->request.keeps_alive) c->closes = 1;
        connection_stream(c, &b);
    }
    c->has_head = 1;
    e->sent = seconds_now();
    if (is_chunked)
        http_chunk(&b, data, len);
    else
        buffer_add(&b, data, len);
    connection_send(c, &b);
    buffer_free(&b);
}

/* Under the lock of the job, which is let go meanwhile: what lies there goes out. */
static void send_waiting(event_sender *e, served_job *j)
{
    buffer out = j->out;
    j->out = (buffer) { 0 };
    pthread_mutex_unlock(&j->lock);
    send_events(e, buffer_text(&out), out.len);
    buffer_free(&out);
    pthread_mutex_lock(&j->lock);
}

/* While a prompt is read, clients and what is between must not think that nobody is there. */
static void send_comment(event_sender *e, served_job *j)
{
    pthread_mutex_unlock(&j->lock);
    send_events(e, ": \n\n", 4);
    pthread_mutex_lock(&j->lock);
}

/* Until it is over; it is cancelled when the client goes or does not read, or when it takes too long. */
static void wait_for(event_sender *e, served_job *j)
{
    server *s = e->c->s;
    int is_cancelled = 0;
    e->sent = seconds_now();
    pthread_mutex_lock(&j->lock);
    while (j->state != JOB_OVER) {
        const struct timespec until = soon();
        if (j->out.len == 0) pthread_cond_timedwait(&j->changed, &j->lock, &until);
        if (j->out.len > 0) send_waiting(e, j);
        if (j->streams && seconds_now() - e->sent > COMMENT_SECONDS) send_comment(e, j);
        const int is_late = seconds_now() - e->c->began > s->args->timeout;
        if (j->state == JOB_OVER || is_cancelled || (!is_gone(j) && !is_late && !e->c->is_lost)) continue;
        is_cancelled = 1;
        pthread_mutex_unlock(&j->lock);
        if (e->c->is_lost) atomic_store(&j->has_gone, 1);
        scheduler_cancel(&s->scheduler, j);
        pthread_mutex_lock(&j->lock);
    }
    pthread_mutex_unlock(&j->lock);
    if (is_cancelled && !is_gone(j) && j->work.status == G4_ERR_CANCELED) wrong_for_time(&j->work);
}

/* What there is of an answer that ran out of time is an answer that was cut off. */
void job_forgive_lateness(request_work *w)
{
    const int has_begun = w->writer.response != NULL || w->writer.text.len > 0;
    if (w->status == G4_ERR_CANCELED && has_begun) w->status = G4_OK;
}

static void count(server *s, const request_work *w)
{
    server_counts *n = &s->counts;
    atomic_fetch_add(&n->prompt_tokens, (unsigned long long)w->prompt.n);
    atomic_fetch_add(&n->cached_tokens, (unsigned long long)w->figures.result.n_reused);
    atomic_fetch_add(&n->answer_tokens, (unsigned long long)w->figures.result.n_tokens);
}

/* The object of a whole answer. */
static void send_object(connection *c, request_work *w)
{
    buffer b = { 0 };
    if (request_answer(w, &b) == DONE) {
        buffer_str(&b, "\n");
        connection_answer(c, 200, NULL, &b, NULL);
    } else {
        connection_error(c, 500, NULL, "the answer could not be written");
    }
    buffer_free(&b);
}

/* The last events, or an error in their place. */
static void end_stream(event_sender *e, served_job *j)
{
    request_work *w = &j->work;
    buffer end = { 0 };
    g4_answer answer;
    int goes_on = j->has_more;
    if (!job_open_stream(j)) {
        e->c->closes = 1;
        return;
    }
    if (w->status == G4_OK && request_finish(w) == DONE && !answer_failed(&w->writer)) {
        answer = answer_describe(&w->writer, &w->figures);
        answer.prompt_tokens += j->prompt_before;
        answer.cached_tokens += j->cached_before;
        answer.result.n_tokens += j->answer_before;
        g4_stream_end(j->stream, &answer, NULL); /* what cannot be written any more, the client does not miss */
    } else {
        const g4_refusal why = refusal_of(w);
        g4_stream_refuse(j->stream, &why, NULL);
        goes_on = 0;
    }
    if (j->out.len > 0) send_events(e, buffer_text(&j->out), j->out.len);
    if (e->c->request.minor > 0 && !goes_on) buffer_str(&end, "0\r\n\r\n");
    connection_send(e->c, &end);
    buffer_free(&end);
}

static void send_answer(event_sender *e, served_job *j)
{
    connection *c = e->c;
    request_work *w = &j->work;
    job_forgive_lateness(w);
    if (w->status != G4_OK && !c->has_head && j->out.len == 0) {
        refuse_request(c, w);
    } else if (j->streams) {
        end_stream(e, j);
    } else {
        send_object(c, w);
    }
}

/* Until it is answered; 0: too many wait, and the client knows. */
static int run_job(event_sender *e, served_job *j)
{
    server *s = e->c->s;
    if (!scheduler_add(&s->scheduler, j)) {
        if (e->c->has_head) {
            request_wrong(&j->work, G4_ERR_CANCELED, NULL, "%d requests wait already", s->args->max_queue);
            return 1;
        }
        connection_error(e->c, 503, NULL, "%d requests wait already: try again", s->args->max_queue);
        return 0;
    }
    wait_for(e, j);
    count(s, &j->work);
    return 1;
}

void job_answer_ready(connection *c, served_job *j)
{
    server *s = c->s;
    request_work *w = &j->work;
    event_sender sender = { .c = c };
    const char *outcome = "refused";
    w->writer.id = atomic_fetch_add(&s->next_id, 1);
    if (is_gone(j)) {
        outcome = "gone";
    } else if (w->status != G4_OK) {
        refuse_request(c, w);
    } else if (run_job(&sender, j)) {
        outcome = is_gone(j) && w->status == G4_ERR_CANCELED ? "gone" : "answered";
        send_answer(&sender, j);
    }
    if (strcmp(outcome, "gone") == 0) atomic_fetch_add(&s->counts.gone, 1);
    trace_add(s, j, c->request.path, outcome);
}

int job_wait(connection *c, served_job *j)
{
    event_sender sender = { .c = c };
    return run_job(&sender, j);
}

static int tell_event(void *user, const char *data, size_t n)
{
    event_sender *e = user;
    send_events(e, data, n);
    return e->c->is_lost;
}

void job_answer_choice(connection *c, served_job *j, void (*alone)(connection *c, served_job *j))
{
    request_work *w = &j->work;
    event_sender sender = { .c = c };
    w->writer.request = w->request;
    if (w->status == G4_OK && alone == NULL) {
        if (!run_job(&sender, j)) return;
    } else if (w->status == G4_OK) {
        j->tell = tell_event;
        j->told = &sender;
        if (job_open_stream(j)) {
            w->writer.stream = j->stream;
            alone(c, j);
        }
    }
    send_answer(&sender, j);
}

void job_refuse(connection *c, served_job *j)
{
    if (!is_gone(j)) refuse_request(c, &j->work);
}

void job_serve(connection *c, void (*use)(connection *c, served_job *j, void *user), void *user)
{
    served_job *j = malloc(sizeof *j);
    watched one;
    if (j == NULL || !job_init(j, &c->s->shop)) {
        free(j);
        connection_error(c, 500, NULL, "no memory for the request");
        c->closes = 1;
        return;
    }
    j->work.dialect = c->dialect;
    j->work.limits.seconds = c->s->args->timeout - (seconds_now() - c->began);
    if (!(j->work.limits.seconds > 0.001)) j->work.limits.seconds = 0.001; /* 0 would be no limit */
    watcher_add(&c->s->watcher, &one, c->fd, &j->gone, &j->has_gone);
    use(c, j, user);
    watcher_remove(&c->s->watcher, &one);
    if (is_gone(j)) c->is_lost = 1;
    job_free(j);
    free(j);
}

static void answer_job(connection *c, served_job *j, void *user)
{
    (void)user;
    job_make_ready(j, &c->request.body);
    job_answer_ready(c, j);
}

void answer_chat(connection *c) { job_serve(c, answer_job, NULL); }

/* ---- What would be read ------------------------------------------------------------------------------------------ */

/* The prompt alone; 0: it was refused. */
static int read_prompt(connection *c, served_job *j, int needs_chat)
{
    request_work *w = &j->work;
    g4_status status = request_read(w, buffer_text(&c->request.body), c->request.body.len);
    if (status == G4_OK && g4_request_get(w->request)->n_prompts > 0) w->is_raw = 1; /* a text, and nobody says it */
    if (status == G4_OK) status = request_prompt(w, "-");
    if (status == G4_OK && w->is_raw && needs_chat)
        status = request_wrong(w, G4_ERR_ARGUMENT, "messages", "messages: expected a list of messages, found none");
    if (status != G4_OK) refuse_request(c, w);
    return status == G4_OK;
}

/* The ids of the text or conversation; 0: it was refused. */
static int read_ids(connection *c, served_job *j)
{
    request_work *w = &j->work;
    size_t n = 0;
    if (request_read(w, buffer_text(&c->request.body), c->request.body.len) == G4_OK) {
        const g4_request_info *info = g4_request_get(w->request);
        const g4_request_prompt *p = info->prompts;
        if (info->n_prompts == 0)
            request_prompt(w, "-");
        else if (p->text == NULL)
            request_wrong(w, G4_ERR_ARGUMENT, "tokens", "tokens: expected a prompt, content or messages");
        else if ((w->status = token_ids(w->shop->engine, p->text, p->len, info->parse_special, &w->ids, &n,
                                        &w->error)) == G4_OK)
            w->prompt = (g4_prompt) { .tokens = w->ids + !info->add_special, .n = (int)n - !info->add_special };
    }
    if (w->status != G4_OK) refuse_request(c, w);
    return w->status == G4_OK;
}

/* The text of a token; as its bytes where they are no text of their own. */
static void add_piece(buffer *b, const g4_engine *engine, g4_token id, int as_text)
{
    char bytes[256], whole[260];
    g4_utf8 state = { 0 };
    const size_t n = g4_token_bytes(engine, id, 0, bytes);
    const size_t len = g4_utf8_push(&state, bytes, n, whole);
    if (as_text || (len == n && memcmp(whole, bytes, n) == 0)) {
        buffer_quote(b, bytes, n);
        return;
    }
    for (size_t i = 0; i < n; i++) buffer_fmt(b, i > 0 ? ",%d" : "[%d", (unsigned char)bytes[i]);
    buffer_str(b, "]");
}

static void send_tokens(connection *c, served_job *j, void *user)
{
    buffer b = { 0 };
    (void)user;
    if (!read_ids(c, j)) return;
    const g4_prompt *p = &j->work.prompt;
    const g4_engine *engine = c->s->shop.engine;
    const g4_request_info *info = g4_request_get(j->work.request);
    buffer_fmt(&b, "{\"count\":%d,\"max_model_len\":%d,\"tokens\":[", p->n, context_size(c->s->args, &c->s->shop.info));
    for (int i = 0; i < p->n; i++) {
        buffer_fmt(&b, info->with_pieces ? "%s{\"id\":%d,\"piece\":" : "%s%d", i > 0 ? "," : "", (int)p->tokens[i]);
        if (!info->with_pieces) continue;
        add_piece(&b, engine, p->tokens[i], 0);
        buffer_str(&b, "}");
    }
    buffer_str(&b, "]");
    for (int i = 0; i < p->n && info->with_strings; i++) {
        buffer_str(&b, i > 0 ? "," : ",\"token_strs\":[");
        add_piece(&b, engine, p->tokens[i], 1);
    }
    buffer_str(&b, p->n > 0 && info->with_strings ? "]}\n" : "}\n");
    connection_answer(c, 200, NULL, &b, NULL);
    buffer_free(&b);
}

/* The text of ids, under the names of vLLM and of llama.cpp. */
static void send_text(connection *c, served_job *j, void *user)
{
    request_work *w = &j->work;
    buffer text = { 0 }, b = { 0 };
    char bytes[256];
    (void)user;
    g4_status status = request_read(w, buffer_text(&c->request.body), c->request.body.len);
    const g4_request_info *info = g4_request_get(w->request);
    const g4_request_prompt *p = status == G4_OK && info->n_prompts > 0 ? info->prompts : NULL;
    if (status == G4_OK && (p == NULL || p->tokens == NULL))
        status = request_wrong(w, G4_ERR_ARGUMENT, "tokens", "tokens: expected a list of ids, found none");
    for (int i = 0; status == G4_OK && i < p->n_tokens; i++) {
        if (p->tokens[i] >= w->shop->info.n_vocab)
            status = request_wrong(w, G4_ERR_ARGUMENT, "tokens", "tokens: expected token ids below %d, found %d",
                                   w->shop->info.n_vocab, (int)p->tokens[i]);
        else
            buffer_add(&text, bytes, g4_token_bytes(w->shop->engine, p->tokens[i], 0, bytes));
    }
    if (status == G4_OK) {
        buffer_str(&b, "{\"prompt\":");
        buffer_quote(&b, buffer_text(&text), text.len);
        buffer_str(&b, ",\"content\":");
        buffer_quote(&b, buffer_text(&text), text.len);
        buffer_str(&b, "}\n");
        b.failed |= text.failed;
        connection_answer(c, 200, NULL, &b, NULL);
    } else {
        refuse_request(c, w);
    }
    buffer_free(&text);
    buffer_free(&b);
}

static void send_template(connection *c, served_job *j, void *user)
{
    buffer b = { 0 };
    size_t len;
    (void)user;
    if (!read_prompt(c, j, 1)) return;
    const char *text = g4_chat_text(j->work.chat, &len);
    buffer_str(&b, "{\"prompt\":");
    buffer_quote(&b, text, len);
    buffer_str(&b, "}\n");
    connection_answer(c, 200, NULL, &b, NULL);
    buffer_free(&b);
}

static void send_count(connection *c, served_job *j, void *user)
{
    buffer b = { 0 };
    (void)user;
    if (!read_prompt(c, j, 0)) return;
    const char *kind_of = c->dialect == G4_DIALECT_ANTHROPIC ? "" : "\"object\":\"response.input_tokens\",";
    buffer_fmt(&b, "{%s\"input_tokens\":%d}\n", kind_of, j->work.prompt.n);
    connection_answer(c, 200, NULL, &b, NULL);
    buffer_free(&b);
}

void answer_tokens(connection *c) { job_serve(c, send_tokens, NULL); }
void answer_text(connection *c) { job_serve(c, send_text, NULL); }
void answer_template(connection *c) { job_serve(c, send_template, NULL); }
void answer_count(connection *c) { job_serve(c, send_count, NULL); }
