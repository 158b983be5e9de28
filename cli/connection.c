/* connection.c - a client of the server: requests of its connection one after another, each read in time and answered
 * before the next. What is refused before its body was read ends the connection, since nobody knows where the next
 * request would begin. */
#include "serve.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { IDLE_SECONDS = 60, HEAD_SECONDS = 10, BODY_SECONDS = 10, BODY_RATE = 4096 /* bytes a second at least */ };
enum { CONNECTION_STACK = 1 << 20 };

/* ---- Answers ---------------------------------------------------------------------------------------------------- */

void connection_send(connection *c, const buffer *b)
{
    if (c->is_lost) return;
    c->is_lost = b->failed || !socket_send(c->fd, buffer_text(b), b->len);
}

void connection_answer(connection *c, int status, const char *type, const buffer *body, const char *fields)
{
    buffer out = { 0 }, more = { 0 };
    const int is_head = c->request.method != NULL && strcmp(c->request.method, "HEAD") == 0;
    if (body->failed) c->is_lost = 1;
    if (atomic_load(&c->s->drains) || !c->request.keeps_alive) c->closes = 1;
    if (fields != NULL) buffer_str(&more, fields);
    if (c->allowed != NULL && (status == 204 || status == 405)) buffer_fmt(&more, "Allow: %s\r\n", c->allowed);
    if (c->origin != NULL) buffer_fmt(&more, "Access-Control-Allow-Origin: %s\r\nVary: Origin\r\n", c->origin);
    http_head(&out, status, type != NULL ? type : "application/json", (int64_t)body->len, buffer_text(&more),
              !c->closes);
    if (!is_head) buffer_add(&out, buffer_text(body), body->len);
    connection_send(c, &out);
    buffer_free(&out);
    buffer_free(&more);
    if (status >= 500)
        atomic_fetch_add(&c->s->counts.failed, 1);
    else if (status >= 400)
        atomic_fetch_add(&c->s->counts.refused, 1);
}

void connection_stream(const connection *c, buffer *head)
{
    buffer more = { 0 };
    if (c->origin != NULL) buffer_fmt(&more, "Access-Control-Allow-Origin: %s\r\nVary: Origin\r\n", c->origin);
    http_head(head, 200, "text/event-stream", c->request.minor > 0 ? HTTP_CHUNKED : HTTP_UNTIL_CLOSED,
              buffer_text(&more), !c->closes);
    buffer_free(&more);
}

void connection_refuse(connection *c, const g4_refusal *why)
{
    buffer b = { 0 };
    const int is_ours = why->status == G4_ERR_MEMORY || why->status == G4_ERR_CANCELED;
    const int status = why->http != 0 ? why->http : is_ours ? 500 : 400;
    const char *more = status == 401 ? "WWW-Authenticate: Bearer\r\n" : status == 503 ? "Retry-After: 1\r\n" : NULL;
    g4_refusal_write(c->dialect, why, buffer_write, &b, NULL, NULL); /* without memory the connection ends */
    connection_answer(c, status, NULL, &b, more);
    buffer_free(&b);
}

void connection_error(connection *c, int status, const char *param, const char *format, ...)
{
    buffer text = { 0 };
    va_list args;
    va_start(args, format);
    buffer_vfmt(&text, format, args);
    va_end(args);
    connection_refuse(c, &(g4_refusal) { .http = status, .message = buffer_text(&text), .param = param });
    buffer_free(&text);
}

/* ---- Requests ---------------------------------------------------------------------------------------------------- */

/* How long the rest of the request may take, or the next one be waited for. */
static double patience(const connection *c, double began)
{
    const http_request *r = &c->request;
    if (r->has_head) return began + BODY_SECONDS + (double)r->body.len / BODY_RATE;
    return began + (r->head.len > 0 ? HEAD_SECONDS : IDLE_SECONDS);
}

/* The head is there. Whoever waits before sending the body is told to send it. */
static int take_head(connection *c)
{
    buffer go_on = { 0 };
    if (!c->s->wants_body(c)) {
        if (c->request.state != HTTP_COMPLETE) c->closes = 1;
        return 0;
    }
    if (c->request.expects_continue && c->in.len == c->in_at) buffer_str(&go_on, "HTTP/1.1 100 Continue\r\n\r\n");
    connection_send(c, &go_on);
    buffer_free(&go_on);
    return !c->is_lost;
}

/* Wait for more; 0: there is no more. */
static int read_more(connection *c, double began)
{
    const int is_idle = !c->request.has_head && c->request.head.len == 0;
    c->in.len = c->in_at = 0;
    const ptrdiff_t n = socket_read(c->fd, &c->in, patience(c, began), is_idle ? c->s->stop_pipe[0] : -1);
    if (n > 0) return 1;
    c->closes = 1;
    if (n == -1 && !is_idle) connection_error(c, 408, NULL, "the request did not come in time");
    return 0;
}

/* The next request, complete; 0: there is none, or it is answered already. */
static int read_request(connection *c)
{
    http_request *r = &c->request;
    double began = seconds_now();
    http_next(r);
    c->origin = c->allowed = NULL;
    c->has_head = 0;
    c->dialect = G4_DIALECT_OPENAI;
    while (r->state != HTTP_COMPLETE && r->state != HTTP_REFUSED) {
        const int had_head = r->has_head, was_empty = r->head.len == 0;
        if (c->in_at == c->in.len && !read_more(c, began)) return 0;
        c->in_at += http_push(r, c->in.data + c->in_at, c->in.len - c->in_at);
        if (r->has_head != had_head || (was_empty && r->head.len > 0)) began = seconds_now();
        if (r->has_head && !had_head && !take_head(c)) return 0;
    }
    if (r->state == HTTP_COMPLETE) return 1;
    c->closes = 1;
    r->keeps_alive = 0;
    connection_error(c, r->status, NULL, "%s", r->why);
    return 0;
}

/* What we have said must arrive: a connection that is closed with bytes of its client unread is torn down. */
static void say_goodbye(connection *c)
{
    const double until = seconds_now() + 1;
    if (c->is_lost || shutdown(c->fd, SHUT_WR) != 0) return;
    do c->in.len = 0;
    while (socket_read(c->fd, &c->in, until, -1) > 0);
}

static void *connection_main(void *arg)
{
    connection *c = arg;
    server *s = c->s;
    c->request.max_body = s->args->max_body;
    while (!c->closes && !c->is_lost) {
        if (!read_request(c)) continue;
        atomic_fetch_add(&s->counts.requests, 1);
        c->began = seconds_now();
        s->answer(c);
    }
    say_goodbye(c);
    close(c->fd);
    http_free(&c->request);
    buffer_free(&c->in);
    free(c);
    pthread_mutex_lock(&s->lock);
    s->n_connections--;
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

int connection_start(server *s, int fd)
{
    pthread_t thread;
    pthread_attr_t attr;
    connection *c = calloc(1, sizeof *c);
    if (c == NULL) return 0;
    *c = (connection) { .s = s, .fd = fd };
    pthread_mutex_lock(&s->lock);
    s->n_connections++;
    pthread_mutex_unlock(&s->lock);
    int started = socket_prepare(fd) && pthread_attr_init(&attr) == 0;
    if (started) {
        pthread_attr_setstacksize(&attr, CONNECTION_STACK);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        started = pthread_create(&thread, &attr, connection_main, c) == 0;
        pthread_attr_destroy(&attr);
    }
    if (started) return 1;
    free(c);
    pthread_mutex_lock(&s->lock);
    s->n_connections--;
    pthread_mutex_unlock(&s->lock);
    return 0;
}
