/* requests.c - a request on its way to its answer, whoever brings it, a line of a batch or a client of the server: it
 * becomes a prompt and what guides the answer, the answer an object in OpenAI's format. What is wrong with it is its
 * own error, in words and with the member that is meant. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* ---- What is wrong -------------------------------------------------------------------------------------- */

g4_status request_wrong(request_work *w, g4_status code, const char *param, const char *format, ...)
{
    buffer b = { 0 };
    va_list args;
    va_start(args, format);
    buffer_vfmt(&b, format, args);
    va_end(args);
    snprintf(w->param, sizeof w->param, "%s", param != NULL ? param : "");
    snprintf(w->error.message, sizeof w->error.message, "%s", buffer_text(&b));
    buffer_free(&b);
    return w->status = w->error.code = code;
}

static void take_fault(request_work *w, const g4_fault *fault)
{
    if (fault->param[0] != '\0') snprintf(w->param, sizeof w->param, "%s", fault->param);
}

/* ---- Grammars that requests share ------------------------------------------------------------------------- */

static kept_grammar *grammar_find(request_shop *s, const buffer *text)
{
    for (int i = 0; i < KEPT_GRAMMARS; i++) {
        kept_grammar *k = &s->grammars[i];
        if (k->grammar != NULL && k->text.len == text->len && memcmp(k->text.data, text->data, text->len) == 0)
            return k;
    }
    return NULL;
}

/* The place of one that nobody uses, and has not for longest; NULL: all are in use. */
static kept_grammar *grammar_room(request_shop *s)
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

typedef g4_status grammar_maker(g4_grammar **out, request_work *w);

static g4_status form_grammar(g4_grammar **out, request_work *w)
{
    const g4_request_info *info = g4_request_get(w->request);
    g4_schema_options options = w->shop->schema;
    options.closed |= info->is_strict;
    options.limits = &w->limits;
    return g4_grammar_from_schema(out, w->shop->engine, info->schema, info->schema_len, &options, &w->error);
}

static g4_status tools_grammar(g4_grammar **out, request_work *w)
{
    const g4_request_info *info = g4_request_get(w->request);
    const char *only = info->tool_choice == G4_TOOLS_NAMED ? info->tool_name : NULL;
    g4_schema_options options = w->shop->schema;
    options.limits = &w->limits;
    return g4_grammar_from_tools(out, w->shop->engine, info->callable, info->callable_len, only, &options, &w->error);
}

/* Under the lock: the grammar of `text` that is kept, or *made, which is kept from now on; NULL: there is neither, or
 * no room. */
static kept_grammar *grammar_keep(request_shop *s, buffer *text, g4_grammar **made)
{
    kept_grammar *k = grammar_find(s, text);
    if (k == NULL && *made != NULL && (k = grammar_room(s)) != NULL) {
        *k = (kept_grammar) { .text = *text, .grammar = *made };
        *text = (buffer) { 0 };
        *made = NULL;
    }
    if (k == NULL) return NULL;
    k->n_users++;
    k->used = ++s->clock;
    return k;
}

/* The grammar of what `text` says, made by make() when it is the first time: meanwhile others go on. */
static g4_status grammar_take(request_work *w, buffer *text, grammar_maker *make, kept_grammar **out)
{
    request_shop *s = w->shop;
    g4_grammar *made = NULL;
    g4_status status = text->failed ? request_wrong(w, G4_ERR_MEMORY, NULL, "no memory for a grammar") : G4_OK;
    if (status == G4_OK) {
        pthread_mutex_lock(&s->lock);
        *out = grammar_keep(s, text, &made);
        pthread_mutex_unlock(&s->lock);
    }
    if (status == G4_OK && *out == NULL) {
        status = make(&made, w);
        if (status == G4_OK) {
            pthread_mutex_lock(&s->lock);
            *out = grammar_keep(s, text, &made);
            pthread_mutex_unlock(&s->lock);
            if (*out == NULL) status = request_wrong(w, G4_ERR_MEMORY, NULL, "too many grammars at once");
        }
        g4_grammar_close(made);
    }
    buffer_free(text);
    return status;
}

static void grammar_leave(request_shop *s, kept_grammar *k)
{
    if (k == NULL) return;
    pthread_mutex_lock(&s->lock);
    k->n_users--;
    pthread_mutex_unlock(&s->lock);
}

/* ---- The prompt ------------------------------------------------------------------------------------------- */

g4_status request_read(request_work *w, const char *json, size_t len)
{
    g4_fault fault = { 0 };
    w->status = g4_request_read_as(&w->request, w->dialect, json, len, NULL, &fault, &w->error);
    take_fault(w, &fault);
    if (w->status != G4_OK) return w->status;
    const g4_request_info *info = g4_request_get(w->request);
    request_options(&w->args, info);
    w->is_raw = w->args.raw || !w->shop->info.is_chat || info->is_completion;
    return G4_OK;
}

/* Ids as they are given. */
static g4_status copy_ids(request_work *w, const g4_request_prompt *p)
{
    w->ids = malloc(((size_t)p->n_tokens + 1) * sizeof *w->ids);
    if (w->ids == NULL) return request_wrong(w, G4_ERR_MEMORY, NULL, "no memory for the token ids");
    for (int i = 0; i < p->n_tokens; i++) {
        if (p->tokens[i] >= w->shop->info.n_vocab)
            return request_wrong(w, G4_ERR_ARGUMENT, "prompt", "prompt: expected token ids below %d, found %d",
                                 w->shop->info.n_vocab, (int)p->tokens[i]);
        w->ids[i] = p->tokens[i];
    }
    w->prompt = (g4_prompt) { .tokens = w->ids, .n = p->n_tokens };
    return G4_OK;
}

/* Text without a template, BOS in front, or ids. */
static g4_status make_raw(request_work *w, const g4_request_info *info)
{
    size_t n = 0;
    if (info->n_prompts == 0)
        return request_wrong(w, G4_ERR_UNSUPPORTED, "messages",
                             "%s has no chat template: expected a \"prompt\" to continue",
                             w->args.raw ? "--raw" : w->shop->info.name);
    const g4_request_prompt *p = &info->prompts[w->which];
    if (p->text != NULL ? p->len == 0 : p->n_tokens == 0)
        return request_wrong(w, G4_ERR_ARGUMENT, "prompt", "prompt: is empty: there is nothing to go on from");
    if (p->text == NULL) return copy_ids(w, p);
    const g4_status status = token_ids(w->shop->engine, p->text, p->len, w->args.specials, &w->ids, &n, &w->error);
    if (status == G4_OK) w->prompt = (g4_prompt) { .tokens = w->ids, .n = (int)n };
    return status;
}

/* A prompt is what the user says, below --system. */
static g4_status open_prompt(request_work *w, const g4_request_info *info, const g4_chat_options *opt)
{
    const char *system = w->args.system != NULL ? w->args.system : "";
    const g4_part parts[] = { { .kind = G4_PART_TEXT, .text = system },
                              { .kind = G4_PART_TEXT, .text = info->prompt, .text_len = info->prompt_len } };
    const g4_message messages[] = { { .role = G4_ROLE_SYSTEM, .parts = &parts[0], .n_parts = 1 },
                                    { .role = G4_ROLE_USER, .parts = &parts[1], .n_parts = 1 } };
    const int from = system[0] == '\0';
    if (strspn(info->prompt, " \t\r\n") == info->prompt_len)
        return request_wrong(w, G4_ERR_ARGUMENT, "prompt", "prompt: is empty: there is nothing to answer");
    return g4_chat_open(&w->chat, w->shop->engine, messages + from, 2 - from, opt, &w->error);
}

static g4_status make_chat(request_work *w, const g4_request_info *info, const char *document)
{
    g4_fault fault = { 0 };
    const g4_chat_options opt = { .thinking = info->thinking >= 0 ? info->thinking : w->args.think != 0,
                                  .tools = info->tools,
                                  .tools_len = info->tools_len,
                                  .limits = w->limits };
    if (info->n_prompts > 0 && info->prompt == NULL)
        return request_wrong(w, G4_ERR_ARGUMENT, "prompt", "prompt: expected one text that a user says");
    g4_status status = info->prompt != NULL
                           ? open_prompt(w, info, &opt)
                           : g4_request_chat(&w->chat, w->shop->engine, w->request, &opt, &fault, &w->error);
    take_fault(w, &fault);
    if (status != G4_OK) return status;
    status = document_media(&w->args, document, w->shop->info.has_audio, &w->limits, w->chat, &w->error);
    if (status != G4_OK && w->param[0] == '\0') snprintf(w->param, sizeof w->param, "messages");
    return status == G4_OK ? g4_chat_prompt(w->chat, &w->prompt, &w->error) : status;
}

g4_status request_prompt(request_work *w, const char *document)
{
    const g4_request_info *info = g4_request_get(w->request);
    return w->status = w->is_raw ? make_raw(w, info) : make_chat(w, info, document);
}

/* ---- What guides the answer --------------------------------------------------------------------------------- */

static g4_status take_form(request_work *w, const g4_request_info *info)
{
    buffer text = { 0 };
    if (w->shop->common != NULL || info->schema == NULL) return G4_OK;
    buffer_fmt(&text, "schema %d ", info->is_strict);
    buffer_add(&text, info->schema, info->schema_len);
    const g4_status status = grammar_take(w, &text, form_grammar, &w->form);
    if (status != G4_OK) snprintf(w->param, sizeof w->param, "response_format");
    return status;
}

static g4_status take_tools(request_work *w, const g4_request_info *info)
{
    buffer text = { 0 };
    if (info->callable == NULL || info->callable_len == 0 || info->tool_choice == G4_TOOLS_NONE) return G4_OK;
    buffer_fmt(&text, "tools %s ", info->tool_choice == G4_TOOLS_NAMED ? info->tool_name : "");
    buffer_add(&text, info->callable, info->callable_len);
    const g4_status status = grammar_take(w, &text, tools_grammar, &w->tools);
    if (status != G4_OK) snprintf(w->param, sizeof w->param, "tools");
    return status;
}

g4_status request_guide(request_work *w)
{
    const g4_request_info *info = g4_request_get(w->request);
    g4_status status = take_form(w, info);
    if (status == G4_OK && w->chat != NULL) status = take_tools(w, info);
    w->guide = (g4_guide_options) { .grammar = w->form != NULL ? w->form->grammar : w->shop->common,
                                    .tool_choice = info->tool_choice,
                                    .tool_name = info->tool_name,
                                    .tools = w->tools != NULL ? w->tools->grammar : NULL,
                                    .think_budget = w->args.think > 1 ? w->args.think - 1 : info->think_budget,
                                    .schema = &w->shop->schema };
    w->writer.is_guided = w->guide.grammar != NULL;
    return w->status = status;
}

/* ---- The answer ------------------------------------------------------------------------------------------------ */

void request_open(request_work *w, request_shop *shop)
{
    *w = (request_work) { .shop = shop, .args = *shop->args };
    w->args.json = JSON_OPENAI;
    w->args.quiet = 1;
    w->writer = (answer_writer) { .args = &w->args, .engine = shop->engine };
}

int request_finish(request_work *w)
{
    figures *f = &w->figures;
    f->prompt_tokens = w->prompt.n;
    f->reused = f->result.n_reused;
    answer_ended(&w->writer, f);
    const int status = w->chat != NULL ? answer_finish_chat(&w->writer, DONE) : DONE;
    if (status == DONE) answer_calls(&w->writer, f);
    return status;
}

int request_answer(request_work *w, buffer *out)
{
    int status = request_finish(w);
    if (status == DONE) status = answer_openai(&w->writer, &w->figures, out);
    while (out->len > 0 && out->data[out->len - 1] == '\n') out->len--;
    return status;
}

void request_close(request_work *w)
{
    answer_free(&w->writer);
    g4_chat_close(w->chat);
    g4_request_close(w->request);
    grammar_leave(w->shop, w->form);
    grammar_leave(w->shop, w->tools);
    free(w->ids);
}

/* ---- What requests share ---------------------------------------------------------------------------------------- */

int request_shop_open(request_shop *s, arguments *a)
{
    s->args = a;
    pthread_mutex_init(&s->lock, NULL);
    const int status = model_open(&s->engine, a);
    if (status == DONE) g4_engine_get_info(s->engine, &s->info);
    return status;
}

void request_shop_close(request_shop *s)
{
    for (int i = 0; i < KEPT_GRAMMARS; i++) {
        g4_grammar_close(s->grammars[i].grammar);
        buffer_free(&s->grammars[i].text);
    }
    g4_grammar_close(s->common);
    g4_engine_close(s->engine);
    pthread_mutex_destroy(&s->lock);
}
