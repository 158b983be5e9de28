/* jobs.c - a line of a batch on its way to its answer, which becomes a line of OpenAI's batch format. What is wrong
 * with a line is its answer, and stops no other. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* ---- Into the batch ------------------------------------------------------------------------------------------ */

static g4_status read_line(batch_job *j, const batch_lines *lines)
{
    buffer text = { 0 };
    const batch_line *l = j->line;
    if (l->twin_of > 0)
        return request_wrong(&j->work, G4_ERR_ARGUMENT, "custom_id", "custom_id: \"%s\" is the name of line %llu too",
                             buffer_text(&l->id), (unsigned long long)l->twin_of);
    if (l->size > MAX_LINE + 1)
        return request_wrong(&j->work, G4_ERR_ARGUMENT, NULL, "expected a line of at most %d bytes, found %llu",
                             MAX_LINE, (unsigned long long)l->size - 1);
    const g4_status status = batch_lines_text(lines, l, &text) == DONE
                                 ? request_read(&j->work, buffer_text(&text), text.len)
                                 : request_wrong(&j->work, G4_ERR_IO, NULL, "the line could not be read again");
    buffer_free(&text);
    return status;
}

static g4_status open_guide(batch_job *j)
{
    request_work *w = &j->work;
    if (w->chat != NULL) return g4_guide_open(&j->guide, w->chat, &w->guide, &w->error);
    if (w->guide.grammar == NULL) return G4_OK;
    return g4_guide_open_text(&j->guide, w->shop->engine, w->guide.grammar, &w->error);
}

static g4_status prepare(batch_job *j, const batch_lines *lines)
{
    request_work *w = &j->work;
    g4_status status = read_line(j, lines);
    if (status == G4_OK && g4_request_get(w->request)->n_prompts > 1)
        status = request_wrong(w, G4_ERR_ARGUMENT, "prompt", "prompt: expected one in a line, found %d",
                               g4_request_get(w->request)->n_prompts);
    if (status == G4_OK) status = request_prompt(w, w->args.requests);
    if (status == G4_OK) status = request_guide(w);
    if (status == G4_OK) status = open_guide(j);
    w->writer.request = w->request;
    if (status == G4_OK && w->chat != NULL && answer_open_chat(&w->writer, g4_chat_in_thought(w->chat)) != DONE)
        status = request_wrong(w, G4_ERR_MEMORY, NULL, "no memory for the answer");
    if (status == G4_OK) j->noted = prefix_note(&j->shop->prefixes, &w->prompt);
    return status;
}

batch_job *job_open(batch_shop *shop, const batch_lines *lines, batch_line *line)
{
    batch_job *j = calloc(1, sizeof *j);
    if (j == NULL) {
        say(FAILED, "no memory for line %llu", (unsigned long long)line->number);
        return NULL;
    }
    *j = (batch_job) { .shop = shop, .line = line };
    request_open(&j->work, &shop->common);
    j->work.limits = until_interrupted();
    j->work.status = prepare(j, lines);
    j->is_over = j->work.status != G4_OK;
    return j;
}

static void on_done(void *user, g4_session *s, g4_status status, const g4_result *result, const g4_error *err)
{
    batch_job *j = user;
    (void)s;
    j->is_over = 1;
    j->work.status = status;
    if (err != NULL) j->work.error = *err;
    j->work.figures.result = *result;
}

void job_start(batch_job *j, g4_session *room)
{
    batch_shop *s = j->shop;
    request_work *w = &j->work;
    g4_session *forked;
    g4_status status = prefix_fork(&s->prefixes, &w->prompt, j->noted, &forked, &w->error);
    if (forked != NULL) g4_session_close(room);
    j->session = forked != NULL ? forked : room;
    if (status == G4_OK && j->session == NULL)
        status = g4_session_open(&j->session, s->common.engine, &s->common.session, &w->error);
    w->generate = answer_options(&w->writer, g4_guide_constraint(j->guide), &w->sampling);
    j->begun = seconds_now();
    const g4_batch_request request = { .prompt = &w->prompt, .generate = &w->generate, .done = on_done, .user = j };
    if (status == G4_OK) status = g4_batch_add(s->batch, j->session, &request, &w->error);
    if (status == G4_OK) return;
    j->is_over = 1;
    w->status = status;
}

/* ---- The answer ------------------------------------------------------------------------------------------------ */

static void begin_line(buffer *out, const batch_line *l, int http)
{
    char id[BATCH_ID_SIZE];
    batch_line_id(l, id);
    buffer_fmt(out, "{\"id\":\"%s\",\"custom_id\":", id);
    buffer_quote(out, buffer_text(&l->id), l->id.len);
    buffer_fmt(out, ",\"response\":{\"status_code\":%d,\"request_id\":\"req_%llu\",\"body\":", http,
               (unsigned long long)l->number);
}

static void add_error(const batch_job *j, buffer *out)
{
    const request_work *w = &j->work;
    const char *why = w->error.message;
    const int is_ours = w->status == G4_ERR_MEMORY || w->status == G4_ERR_CANCELED;
    const char *code = is_ours                       ? "server_error"
                       : w->status == G4_ERR_CONTEXT ? "context_length_exceeded"
                                                     : "invalid_request";
    begin_line(out, j->line, is_ours ? 500 : 400);
    buffer_str(out, "{\"error\":{\"message\":");
    buffer_quote(out, why, strlen(why));
    buffer_fmt(out, ",\"type\":\"%s\",\"param\":", is_ours ? "server_error" : "invalid_request_error");
    if (w->param[0] != '\0')
        buffer_quote(out, w->param, strlen(w->param));
    else
        buffer_str(out, "null");
    buffer_fmt(out, ",\"code\":\"%s\"}}},\"error\":{\"code\":\"%s\",\"message\":", code, code);
    buffer_quote(out, why, strlen(why));
    buffer_str(out, "}}\n");
}

int job_answer(batch_job *j, buffer *out)
{
    request_work *w = &j->work;
    if (w->status != G4_OK) {
        add_error(j, out);
        return DONE;
    }
    w->figures.prompt_seconds = seconds_now() - j->begun - w->figures.result.seconds;
    begin_line(out, j->line, 200);
    const int status = request_answer(w, out);
    buffer_str(out, "},\"error\":null}\n");
    return status;
}

g4_session *job_close(batch_job *j)
{
    g4_session *session = j->session;
    g4_guide_close(j->guide);
    request_close(&j->work);
    free(j);
    return session;
}

void shop_close(batch_shop *s)
{
    prefix_close(&s->prefixes);
    request_shop_close(&s->common);
}
