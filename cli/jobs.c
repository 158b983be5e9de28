/* jobs.c - a line of a batch on its way to its answer: the request becomes a prompt and what guides its answer, the
 * answer a line of OpenAI's batch format. What is wrong with a line is its answer, and stops no other. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* ---- What is wrong -------------------------------------------------------------------------------------- */

static g4_status wrong(batch_job *j, g4_status code, const char *param, const char *format, ...)
{
    buffer b = { 0 };
    va_list args;
    va_start(args, format);
    buffer_vfmt(&b, format, args);
    va_end(args);
    snprintf(j->param, sizeof j->param, "%s", param != NULL ? param : "");
    snprintf(j->error.message, sizeof j->error.message, "%s", buffer_text(&b));
    buffer_free(&b);
    return j->error.code = code;
}

/* ---- Grammars that lines share ------------------------------------------------------------------------------ */

static kept_grammar *grammar_find(batch_shop *s, const buffer *text)
{
    for (int i = 0; i < KEPT_GRAMMARS; i++) {
        kept_grammar *k = &s->grammars[i];
        if (k->grammar != NULL && k->text.len == text->len && memcmp(k->text.data, text->data, text->len) == 0)
            return k;
    }
    return NULL;
}

/* The place of one that nobody uses, and has not for longest; NULL: all are in use. */
static kept_grammar *grammar_room(batch_shop *s)
{
    kept_grammar *best = NULL;
    for (int i = 0; i < KEPT_GRAMMARS; i++) {
        kept_grammar *k = &s->grammars[i];
        if (k->n_users == 0 && (best == NULL || k->used < best->used)) best = k;
    }
    if (best == NULL) return NULL;
    g4_grammar_close(best->grammar);
    buffer_free(&best->text);
    *best = (kept_grammar) { .used = 0 };
    return best;
}

typedef g4_status grammar_maker(g4_grammar **out, const batch_job *j, g4_error *err);

static g4_status form_grammar(g4_grammar **out, const batch_job *j, g4_error *err)
{
    const g4_request_info *info = g4_request_get(j->request);
    g4_schema_options options = j->shop->schema;
    options.closed |= info->is_strict;
    return g4_grammar_from_schema(out, j->shop->engine, info->schema, info->schema_len, &options, err);
}

static g4_status tools_grammar(g4_grammar **out, const batch_job *j, g4_error *err)
{
    const g4_request_info *info = g4_request_get(j->request);
    const char *only = info->tool_choice == G4_TOOLS_NAMED ? info->tool_name : NULL;
    return g4_grammar_from_tools(out, j->shop->engine, info->callable, info->callable_len, only, &j->shop->schema, err);
}

/* The grammar of what `text` says, made by make() when it is the first time. */
static g4_status grammar_take(batch_job *j, buffer *text, grammar_maker *make, kept_grammar **out)
{
    batch_shop *s = j->shop;
    g4_status status = text->failed ? wrong(j, G4_ERR_MEMORY, NULL, "no memory for a grammar") : G4_OK;
    kept_grammar *k = status == G4_OK ? grammar_find(s, text) : NULL;
    if (status == G4_OK && k == NULL) {
        k = grammar_room(s);
        status =
            k != NULL ? make(&k->grammar, j, &j->error) : wrong(j, G4_ERR_MEMORY, NULL, "too many grammars at once");
        if (status == G4_OK) {
            k->text = *text;
            *text = (buffer) { 0 };
        }
    }
    buffer_free(text);
    if (status != G4_OK) return status;
    k->n_users++;
    k->used = ++s->clock;
    *out = k;
    return G4_OK;
}

static void grammar_leave(kept_grammar *k)
{
    if (k != NULL) k->n_users--;
}

/* ---- The prompt ------------------------------------------------------------------------------------------- */

static g4_status read_request(batch_job *j, const batch_lines *lines)
{
    buffer text = { 0 };
    g4_fault fault = { 0 };
    const batch_line *l = j->line;
    if (l->twin_of > 0)
        return wrong(j, G4_ERR_ARGUMENT, "custom_id", "custom_id: \"%s\" is the name of line %llu too",
                     buffer_text(&l->id), (unsigned long long)l->twin_of);
    if (l->size > MAX_LINE + 1)
        return wrong(j, G4_ERR_ARGUMENT, NULL, "expected a line of at most %d bytes, found %llu", MAX_LINE,
                     (unsigned long long)l->size - 1);
    g4_status status = batch_lines_text(lines, l, &text) == DONE ? G4_OK : G4_ERR_IO;
    if (status != G4_OK)
        wrong(j, status, NULL, "the line could not be read again");
    else
        status = g4_request_read(&j->request, buffer_text(&text), text.len, NULL, &fault, &j->error);
    if (fault.param[0] != '\0') snprintf(j->param, sizeof j->param, "%s", fault.param);
    buffer_free(&text);
    return status;
}

/* Text without a template, BOS in front. */
static g4_status make_raw(batch_job *j, const g4_request_info *info)
{
    size_t n = 0;
    if (info->prompt == NULL)
        return wrong(j, G4_ERR_UNSUPPORTED, "messages", "%s has no chat template: expected a \"prompt\" to continue",
                     j->shop->args->raw ? "--raw" : j->shop->info.name);
    if (info->prompt_len == 0)
        return wrong(j, G4_ERR_ARGUMENT, "prompt", "prompt: is empty: there is nothing to go on from");
    const g4_status status =
        token_ids(j->shop->engine, info->prompt, info->prompt_len, j->args.specials, &j->ids, &n, &j->error);
    if (status == G4_OK) j->prompt = (g4_prompt) { .tokens = j->ids, .n = (int)n };
    return status;
}

/* A prompt is what the user says, below --system. */
static g4_status open_prompt(batch_job *j, const g4_request_info *info, const g4_chat_options *opt)
{
    const char *system = j->args.system != NULL ? j->args.system : "";
    const g4_part parts[] = { { .kind = G4_PART_TEXT, .text = system },
                              { .kind = G4_PART_TEXT, .text = info->prompt, .text_len = info->prompt_len } };
    const g4_message messages[] = { { .role = G4_ROLE_SYSTEM, .parts = &parts[0], .n_parts = 1 },
                                    { .role = G4_ROLE_USER, .parts = &parts[1], .n_parts = 1 } };
    const int from = system[0] == '\0';
    if (strspn(info->prompt, " \t\r\n") == info->prompt_len)
        return wrong(j, G4_ERR_ARGUMENT, "prompt", "prompt: is empty: there is nothing to answer");
    return g4_chat_open(&j->chat, j->shop->engine, messages + from, 2 - from, opt, &j->error);
}

static g4_status make_chat(batch_job *j, const g4_request_info *info)
{
    g4_fault fault = { 0 };
    const g4_chat_options opt = { .thinking = info->thinking >= 0 ? info->thinking : j->args.think != 0,
                                  .tools = info->tools,
                                  .tools_len = info->tools_len };
    g4_status status = info->prompt != NULL
                           ? open_prompt(j, info, &opt)
                           : g4_request_chat(&j->chat, j->shop->engine, j->request, &opt, &fault, &j->error);
    if (fault.param[0] != '\0') snprintf(j->param, sizeof j->param, "%s", fault.param);
    if (status == G4_OK)
        status = document_media(&j->args, j->args.requests, j->shop->info.has_audio, j->chat, &j->error);
    return status == G4_OK ? g4_chat_prompt(j->chat, &j->prompt, &j->error) : status;
}

/* ---- What guides the answer --------------------------------------------------------------------------------- */

static g4_status take_form(batch_job *j, const g4_request_info *info)
{
    buffer text = { 0 };
    if (j->shop->common != NULL || info->schema == NULL) return G4_OK;
    buffer_fmt(&text, "schema %d ", info->is_strict);
    buffer_add(&text, info->schema, info->schema_len);
    const g4_status status = grammar_take(j, &text, form_grammar, &j->form);
    if (status != G4_OK) snprintf(j->param, sizeof j->param, "response_format");
    return status;
}

static g4_status take_tools(batch_job *j, const g4_request_info *info)
{
    buffer text = { 0 };
    if (info->callable == NULL || info->callable_len == 0 || info->tool_choice == G4_TOOLS_NONE) return G4_OK;
    buffer_fmt(&text, "tools %s ", info->tool_choice == G4_TOOLS_NAMED ? info->tool_name : "");
    buffer_add(&text, info->callable, info->callable_len);
    const g4_status status = grammar_take(j, &text, tools_grammar, &j->tools);
    if (status != G4_OK) snprintf(j->param, sizeof j->param, "tools");
    return status;
}

static g4_status make_guide(batch_job *j, const g4_request_info *info)
{
    g4_status status = take_form(j, info);
    if (status == G4_OK && j->chat != NULL) status = take_tools(j, info);
    if (status != G4_OK) return status;
    g4_grammar *grammar = j->form != NULL ? j->form->grammar : j->shop->common;
    j->writer.is_guided = grammar != NULL;
    if (j->chat == NULL)
        return grammar != NULL ? g4_guide_open_text(&j->guide, j->shop->engine, grammar, &j->error) : G4_OK;
    const g4_guide_options opt = { .grammar = grammar,
                                   .tool_choice = info->tool_choice,
                                   .tool_name = info->tool_name,
                                   .tools = j->tools != NULL ? j->tools->grammar : NULL,
                                   .think_budget = j->args.think > 1 ? j->args.think - 1 : info->think_budget,
                                   .schema = &j->shop->schema };
    return g4_guide_open(&j->guide, j->chat, &opt, &j->error);
}

/* ---- Into the batch ------------------------------------------------------------------------------------------ */

static g4_status prepare(batch_job *j, const batch_lines *lines)
{
    g4_status status = read_request(j, lines);
    if (status != G4_OK) return status;
    const g4_request_info *info = g4_request_get(j->request);
    request_options(&j->args, info);
    const int is_raw = j->args.raw || !j->shop->info.is_chat || info->is_completion;
    status = is_raw ? make_raw(j, info) : make_chat(j, info);
    if (status == G4_OK) status = make_guide(j, info);
    j->writer.request = j->request;
    if (status == G4_OK && !is_raw && answer_open_chat(&j->writer, g4_chat_in_thought(j->chat)) != DONE)
        status = wrong(j, G4_ERR_MEMORY, NULL, "no memory for the answer");
    if (status == G4_OK) j->noted = prefix_note(&j->shop->prefixes, &j->prompt);
    return status;
}

batch_job *job_open(batch_shop *shop, const batch_lines *lines, batch_line *line)
{
    batch_job *j = calloc(1, sizeof *j);
    if (j == NULL) {
        say(FAILED, "no memory for line %llu", (unsigned long long)line->number);
        return NULL;
    }
    *j = (batch_job) { .shop = shop, .line = line, .args = *shop->args };
    j->args.json = JSON_OPENAI;
    j->args.quiet = 1;
    j->writer = (answer_writer) { .args = &j->args, .engine = shop->engine };
    j->status = prepare(j, lines);
    j->is_over = j->status != G4_OK;
    return j;
}

static void on_done(void *user, g4_session *s, g4_status status, const g4_result *result, const g4_error *err)
{
    batch_job *j = user;
    (void)s;
    j->is_over = 1;
    j->status = status;
    if (err != NULL) j->error = *err;
    j->figures.result = *result;
}

void job_start(batch_job *j, g4_session *room)
{
    batch_shop *s = j->shop;
    g4_session *forked;
    g4_status status = prefix_fork(&s->prefixes, &j->prompt, j->noted, &forked, &j->error);
    if (forked != NULL) g4_session_close(room);
    j->session = forked != NULL ? forked : room;
    if (status == G4_OK && j->session == NULL) status = g4_session_open(&j->session, s->engine, &s->session, &j->error);
    j->generate = answer_options(&j->writer, g4_guide_constraint(j->guide), &j->sampling);
    j->begun = seconds_now();
    const g4_batch_request request = { .prompt = &j->prompt, .generate = &j->generate, .done = on_done, .user = j };
    if (status == G4_OK) status = g4_batch_add(s->batch, j->session, &request, &j->error);
    if (status == G4_OK) return;
    j->is_over = 1;
    j->status = status;
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
    const char *why = j->error.message;
    const int is_ours = j->status == G4_ERR_MEMORY || j->status == G4_ERR_CANCELED;
    const char *code = is_ours                       ? "server_error"
                       : j->status == G4_ERR_CONTEXT ? "context_length_exceeded"
                                                     : "invalid_request";
    begin_line(out, j->line, is_ours ? 500 : 400);
    buffer_str(out, "{\"error\":{\"message\":");
    buffer_quote(out, why, strlen(why));
    buffer_fmt(out, ",\"type\":\"%s\",\"param\":", is_ours ? "server_error" : "invalid_request_error");
    if (j->param[0] != '\0')
        buffer_quote(out, j->param, strlen(j->param));
    else
        buffer_str(out, "null");
    buffer_fmt(out, ",\"code\":\"%s\"}}},\"error\":{\"code\":\"%s\",\"message\":", code, code);
    buffer_quote(out, why, strlen(why));
    buffer_str(out, "}}\n");
}

int job_answer(batch_job *j, buffer *out)
{
    figures *f = &j->figures;
    if (j->status != G4_OK) {
        add_error(j, out);
        return DONE;
    }
    f->prompt_tokens = j->prompt.n;
    f->reused = f->result.n_reused;
    f->prompt_seconds = seconds_now() - j->begun - f->result.seconds;
    answer_ended(&j->writer, f);
    int status = j->chat != NULL ? answer_finish_chat(&j->writer, DONE) : DONE;
    if (status == DONE) answer_calls(&j->writer, f);
    begin_line(out, j->line, 200);
    if (status == DONE) status = answer_openai(&j->writer, f, out);
    while (out->len > 0 && out->data[out->len - 1] == '\n') out->len--;
    buffer_str(out, "},\"error\":null}\n");
    return status;
}

g4_session *job_close(batch_job *j)
{
    g4_session *session = j->session;
    answer_free(&j->writer);
    g4_guide_close(j->guide);
    g4_chat_close(j->chat);
    g4_request_close(j->request);
    grammar_leave(j->form);
    grammar_leave(j->tools);
    free(j->ids);
    free(j);
    return session;
}

void shop_close(batch_shop *s)
{
    for (int i = 0; i < KEPT_GRAMMARS; i++) {
        g4_grammar_close(s->grammars[i].grammar);
        buffer_free(&s->grammars[i].text);
    }
    prefix_close(&s->prefixes);
    g4_grammar_close(s->common);
    g4_engine_close(s->engine);
}
