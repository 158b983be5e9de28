/* trace.c - what the server has done, a line of JSON for each request: what it read, what of that it found in a session
 * and why no more, how it ended. Whatever a client says stands there as text of JSON and drives no terminal. */
#include "serve.h"

#include <errno.h>
#include <string.h>
#include <time.h>

int trace_open(server *s)
{
    if (s->args->trace == NULL) return DONE;
    FILE *f = fopen(s->args->trace, "a");
    if (f == NULL) return cannot_write(s->args->trace, errno);
    pthread_mutex_lock(&s->lock);
    if (s->trace != NULL) fclose(s->trace);
    s->trace = f;
    pthread_mutex_unlock(&s->lock);
    return DONE;
}

void trace_add(server *s, const served_job *j, const char *route, const char *outcome)
{
    const request_work *w = &j->work;
    buffer b = { 0 };
    size_t len = 0;
    if (s->args->trace == NULL) return;
    buffer_fmt(&b, "{\"time\":%lld,\"id\":%llu,\"route\":", (long long)time(NULL), (unsigned long long)w->writer.id);
    buffer_quote(&b, route, strlen(route));
    buffer_fmt(&b, ",\"outcome\":\"%s\",\"prompt_tokens\":%d,\"cached_tokens\":%d,\"answer_tokens\":%d", outcome,
               w->prompt.n, w->figures.result.n_reused, w->figures.result.n_tokens);
    buffer_fmt(&b, ",\"session\":\"%s\",\"common\":%d,\"held\":%d", j->placed, j->n_common, j->n_held);
    buffer_fmt(&b, ",\"queue_seconds\":%.4f,\"prompt_seconds\":%.4f,\"answer_seconds\":%.4f",
               j->begun > 0 ? j->begun - j->added : 0, w->figures.prompt_seconds, w->figures.result.seconds);
    if (w->status != G4_OK) {
        buffer_str(&b, ",\"error\":");
        buffer_quote(&b, w->error.message, strlen(w->error.message));
    }
    if (w->chat != NULL) {
        const char *text = g4_chat_text(w->chat, &len);
        buffer_str(&b, ",\"prompt\":");
        buffer_quote(&b, text, len);
    }
    buffer_str(&b, "}\n");
    pthread_mutex_lock(&s->lock);
    int reason = 0;
    if (s->trace != NULL && !b.failed && (fwrite(b.data, 1, b.len, s->trace) != b.len || fflush(s->trace) != 0))
        reason = errno;
    const int is_news = reason != 0 && !s->trace_failed; /* a full disk is said once, and ends no answer */
    s->trace_failed = reason != 0;
    pthread_mutex_unlock(&s->lock);
    if (is_news) cannot_write(s->args->trace, reason);
    buffer_free(&b);
}
