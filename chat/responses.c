/* responses.c - what clients of OpenAI's /v1/responses send and read. Nothing is kept between two requests: a
 * conversation comes with each of them, as items, which become messages; what leans on an earlier answer is refused by
 * name. An answer becomes items too, or its events. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <inttypes.h>
#include <string.h>

/* ---- Requests: items ------------------------------------------------------------------------------ */

static const char *const g4_responses_names[][2] = { { "messages", "input" },
                                                     { "max_tokens", "max_output_tokens" },
                                                     { "reasoning_effort", "reasoning.effort" },
                                                     { "response_format.json_schema", "text.format" },
                                                     { "response_format", "text.format" },
                                                     { "logprobs", "include" },
                                                     { "tool_call_id", "call_id" },
                                                     { NULL, NULL } };
static const g4_wording g4_responses_wording = { "input", "instructions", g4_responses_names };

typedef struct { /* items of the model that follow each other are one message: thoughts, then text, then calls */
    g4_openai *o;
    g4_tree messages;
    g4_origin *origins;
    int n;                 /* messages so far */
    const g4_json *answer; /* of the message that is gathered; NULL: no text yet */
    g4_buf thought;
    g4_tree calls;
    int first; /* item of that message; -1: none is gathered */
} g4_responses;

static void g4_responses_add(g4_responses *w, const g4_tree *message, int index)
{
    g4_tree_put(w->o, &w->messages, NULL, message->node);
    w->origins[w->n++] = (g4_origin) { index, -1 };
}

/* What was gathered becomes a message. */
static void g4_responses_flush(g4_responses *w)
{
    g4_openai *o = w->o;
    g4_json thought;
    if (w->first < 0) return;
    g4_tree message = g4_tree_open(o, G4_JSON_OBJECT);
    g4_tree_put_text(o, &message, "role", "assistant");
    g4_tree_put(o, &message, "content", w->answer);
    g4_tree_keep(o, &w->thought, &thought);
    if (w->thought.len > 0) g4_tree_put(o, &message, "reasoning_content", &thought);
    if (w->calls.node->child != NULL) g4_tree_put(o, &message, "tool_calls", w->calls.node);
    g4_responses_add(w, &message, w->first);
    w->answer = NULL;
    w->thought.len = 0;
    w->first = -1;
}

/* The message that items of the model go into, from this one on if none is gathered. */
static void g4_responses_gather(g4_responses *w, int index)
{
    if (w->first >= 0) return;
    w->first = index;
    w->calls = g4_tree_open(w->o, G4_JSON_ARRAY);
}

static g4_status g4_responses_message(g4_responses *w, const g4_json *item, int index)
{
    const g4_json *role = g4_json_get(item, "role"), *content = g4_json_get(item, "content");
    if (!g4_json_is(role, G4_JSON_STRING))
        return g4_openai_fail(w->o, "role", "expected text, found %s", g4_json_kind_name(role));
    if (!g4_json_is_text(role, "assistant")) {
        g4_tree message = g4_tree_open(w->o, G4_JSON_OBJECT);
        g4_responses_flush(w);
        g4_tree_put(w->o, &message, "role", role);
        g4_tree_put(w->o, &message, "content", content);
        g4_responses_add(w, &message, index);
        return G4_OK;
    }
    if (w->first >= 0 && (w->answer != NULL || w->calls.node->child != NULL)) g4_responses_flush(w);
    g4_responses_gather(w, index);
    w->first = index; /* what is wrong in its content is wrong there */
    w->answer = content;
    return G4_OK;
}

static g4_status g4_responses_call(g4_responses *w, const g4_json *item, int index)
{
    static const char *const names[] = { "call_id", "name", "arguments" };
    g4_openai *o = w->o;
    for (int i = 0; i < 3; i++) {
        const g4_json *v = g4_json_get(item, names[i]);
        if (!g4_json_is(v, G4_JSON_STRING))
            return g4_openai_fail(o, names[i], "expected text, found %s", g4_json_kind_name(v));
    }
    g4_tree call = g4_tree_open(o, G4_JSON_OBJECT), function = g4_tree_open(o, G4_JSON_OBJECT);
    g4_tree_put(o, &function, "name", g4_json_get(item, "name"));
    g4_tree_put(o, &function, "arguments", g4_json_get(item, "arguments"));
    g4_tree_put(o, &call, "id", g4_json_get(item, "call_id"));
    g4_tree_put(o, &call, "function", function.node);
    g4_responses_gather(w, index);
    g4_tree_put(o, &w->calls, NULL, call.node);
    return G4_OK;
}

static g4_status g4_responses_output(g4_responses *w, const g4_json *item, int index)
{
    g4_tree message = g4_tree_open(w->o, G4_JSON_OBJECT);
    const g4_json *id = g4_json_get(item, "call_id");
    if (!g4_json_is(id, G4_JSON_STRING))
        return g4_openai_fail(w->o, "call_id", "expected text, found %s", g4_json_kind_name(id));
    const g4_json *output = g4_json_get(item, "output");
    if (!g4_json_is(output, G4_JSON_STRING) && !g4_json_is(output, G4_JSON_ARRAY))
        return g4_openai_fail(w->o, "output", "expected text or a list of parts, found %s", g4_json_kind_name(output));
    g4_responses_flush(w);
    g4_tree_put_text(w->o, &message, "role", "tool");
    g4_tree_put(w->o, &message, "tool_call_id", id);
    g4_tree_put(w->o, &message, "content", output);
    g4_responses_add(w, &message, index);
    return G4_OK;
}

/* A thought: its content, or, where there is none, its summary. What is encrypted means nothing here. */
static g4_status g4_responses_thought(g4_responses *w, const g4_json *item, int index)
{
    static const char *const names[] = { "content", "summary" };
    g4_openai *o = w->o;
    size_t len = strlen(o->place);
    if (w->first >= 0 && (w->answer != NULL || w->calls.node->child != NULL)) g4_responses_flush(w);
    g4_responses_gather(w, index);
    for (int i = 0, n = 0; i < 2 && n == 0; i++) {
        const g4_json *list = g4_json_given(item, names[i]);
        if (list != NULL && list->kind != G4_JSON_ARRAY)
            return g4_openai_fail(o, names[i], "expected a list, found %s", g4_json_kind_name(list));
        for (const g4_json *part = list != NULL ? list->child : NULL; part != NULL; part = part->next) {
            const g4_json *text = g4_json_get(part, "text");
            g4_openai_enter(o, "%s[%d]", names[i], n++);
            if (!g4_json_is(text, G4_JSON_STRING))
                return g4_openai_fail(o, "text", "expected text, found %s", g4_json_kind_name(text));
            o->place[len] = '\0';
            if (w->thought.len > 0) g4_buf_str(&w->thought, "\n");
            g4_buf_add(&w->thought, text->text, text->text_len);
        }
    }
    return G4_OK;
}

static g4_status g4_responses_item(g4_responses *w, const g4_json *item, int index)
{
    static const struct {
        const char *type;
        g4_status (*read)(g4_responses *w, const g4_json *item, int index);
    } kinds[] = { { "message", g4_responses_message },
                  { "function_call", g4_responses_call },
                  { "function_call_output", g4_responses_output },
                  { "reasoning", g4_responses_thought } };
    g4_openai *o = w->o;
    const g4_json *type = g4_json_given(item, "type");
    if (g4_ask(&o->asker)) return g4_halt_check(o->asker.halt, o->err);
    o->place[0] = '\0';
    g4_openai_enter(o, "input[%d]", index);
    if (item->kind != G4_JSON_OBJECT)
        return g4_openai_fail(o, NULL, "expected an object, found %s", g4_json_kind_name(item));
    for (int i = 0; i < 4; i++)
        if (type == NULL || g4_json_is_text(type, kinds[i].type)) return kinds[i].read(w, item, index);
    return g4_openai_fail(o, "type", "expected message, function_call, function_call_output or reasoning, found %.40s",
                          type->kind == G4_JSON_STRING ? type->text : g4_json_kind_name(type));
}

/* What the user says, or items; instructions stand in front. */
static g4_status g4_responses_items(g4_openai *o, const g4_json *from, g4_tree *to)
{
    const g4_json *input = g4_json_given(from, "input"), *instructions = g4_json_given(from, "instructions");
    g4_responses w = { .o = o, .messages = g4_tree_open(o, G4_JSON_ARRAY), .thought = { .a = o->m->a }, .first = -1 };
    const int is_text = g4_json_is(input, G4_JSON_STRING);
    size_t most = 2;
    g4_status st = G4_OK;
    if (!is_text && !g4_json_is(input, G4_JSON_ARRAY))
        return g4_openai_fail(o, "input", "expected text or a list of items, found %s", g4_json_kind_name(input));
    if (instructions != NULL && instructions->kind != G4_JSON_STRING)
        return g4_openai_fail(o, "instructions", "expected text, found %s", g4_json_kind_name(instructions));
    for (const g4_json *item = input->child; item != NULL; item = item->next) most++;
    w.origins = g4_arena_alloc(o->m, most * sizeof *w.origins);
    if (w.origins == NULL) return g4_fail(o->err, G4_ERR_MEMORY, "no memory for a request");
    o->origins = w.origins;
    for (int i = 0; i < 2; i++) {
        const g4_json *content = i == 0 ? instructions : is_text ? input : NULL;
        if (content == NULL) continue;
        g4_tree message = g4_tree_open(o, G4_JSON_OBJECT);
        g4_tree_put_text(o, &message, "role", i == 0 ? "system" : "user");
        g4_tree_put(o, &message, "content", content);
        g4_responses_add(&w, &message, i == 0 ? -1 : -2);
    }
    int index = 0;
    for (const g4_json *item = input->child; item != NULL && st == G4_OK; item = item->next)
        st = g4_responses_item(&w, item, index++);
    if (st == G4_OK) g4_responses_flush(&w);
    if (w.thought.failed) o->no_memory = 1;
    g4_buf_free(&w.thought);
    if (st != G4_OK) return st;
    o->place[0] = '\0';
    o->n_origins = w.n;
    g4_tree_put(o, to, "messages", is_text || index > 0 ? w.messages.node : input);
    return G4_OK;
}

/* ---- Requests: the rest --------------------------------------------------------------------------- */

/* What stands on the server, or goes on without the client. */
static g4_status g4_responses_refuse(g4_openai *o, const g4_json *from)
{
    static const char *const kept[] = { "previous_response_id", "conversation", "prompt" };
    for (int i = 0; i < 3; i++)
        if (g4_json_given(from, kept[i]) != NULL)
            return g4_openai_fail(o, kept[i], "expected none: nothing is kept here, all of a conversation is in input");
    const g4_json *background = g4_json_given(from, "background");
    if (background == NULL || background->kind == G4_JSON_FALSE) return G4_OK;
    if (background->kind != G4_JSON_TRUE)
        return g4_openai_fail(o, "background", "expected true or false, found %s", g4_json_kind_name(background));
    return g4_openai_fail(o, "background", "expected false: an answer goes to whoever waits for it");
}

/* {effort}: how long it may think. */
static g4_status g4_responses_effort(g4_openai *o, const g4_json *from, g4_tree *to)
{
    const g4_json *reasoning = g4_json_given(from, "reasoning");
    if (reasoning != NULL && reasoning->kind != G4_JSON_OBJECT)
        return g4_openai_fail(o, "reasoning", "expected an object, found %s", g4_json_kind_name(reasoning));
    g4_tree_put(o, to, "reasoning_effort", g4_json_get(reasoning, "effort"));
    return G4_OK;
}

/* {format: {type, name, schema, strict}}, the schema's members beside its type. */
static g4_status g4_responses_format(g4_openai *o, const g4_json *from, g4_tree *to)
{
    const g4_json *text = g4_json_given(from, "text"), *format = g4_json_given(text, "format"),
                  *type = g4_json_get(format, "type");
    if (text != NULL && text->kind != G4_JSON_OBJECT)
        return g4_openai_fail(o, "text", "expected an object, found %s", g4_json_kind_name(text));
    if (!g4_json_is_text(type, "json_schema")) {
        g4_tree_put(o, to, "response_format", format);
        return G4_OK;
    }
    g4_tree outer = g4_tree_open(o, G4_JSON_OBJECT);
    g4_tree_put(o, &outer, "type", type);
    g4_tree_put(o, &outer, "json_schema", format);
    g4_tree_put(o, to, "response_format", outer.node);
    return G4_OK;
}

static g4_status g4_responses_logprobs(g4_openai *o, const g4_json *from, g4_tree *to)
{
    const g4_json *include = g4_json_given(from, "include"), yes = { .kind = G4_JSON_TRUE };
    int is_wanted = 0;
    if (include != NULL && include->kind != G4_JSON_ARRAY)
        return g4_openai_fail(o, "include", "expected a list, found %s", g4_json_kind_name(include));
    for (const g4_json *v = include != NULL ? include->child : NULL; v != NULL; v = v->next) {
        if (v->kind != G4_JSON_STRING)
            return g4_openai_fail(o, "include", "expected a list of texts, found %s in it", g4_json_kind_name(v));
        is_wanted |= g4_json_is_text(v, "message.output_text.logprobs");
    }
    if (is_wanted) g4_tree_put(o, to, "logprobs", &yes);
    g4_tree_put(o, to, "top_logprobs", g4_json_get(from, "top_logprobs"));
    return G4_OK;
}

/* What an answer says of its request, before it is changed; of all members what they are when nobody gives them. */
static const char *const g4_responses_echoes[][2] = { { "instructions", "null" },
                                                      { "max_output_tokens", "null" },
                                                      { "metadata", "{}" },
                                                      { "parallel_tool_calls", "true" },
                                                      { "reasoning", "{\"effort\":null,\"summary\":null}" },
                                                      { "temperature", "null" },
                                                      { "text", "{\"format\":{\"type\":\"text\"}}" },
                                                      { "tool_choice", "\"auto\"" },
                                                      { "tools", "[]" },
                                                      { "top_p", "null" },
                                                      { "truncation", "\"disabled\"" } };
enum { G4_N_ECHOES = sizeof g4_responses_echoes / sizeof g4_responses_echoes[0] };

static void g4_responses_echo(g4_buf *b, const g4_json *from)
{
    for (int i = 0; i < G4_N_ECHOES; i++) {
        const g4_json *v = g4_json_given(from, g4_responses_echoes[i][0]);
        g4_buf_fmt(b, ",\"%s\":", g4_responses_echoes[i][0]);
        if (v != NULL)
            g4_json_write(b, v);
        else
            g4_buf_str(b, g4_responses_echoes[i][1]);
    }
}

g4_status g4_responses_read(g4_openai *o, g4_json **doc, g4_request_info *info)
{
    static const char *const same[] = { "model", "stream",      "temperature",        "top_p",
                                        "tools", "tool_choice", "parallel_tool_calls" };
    g4_json *from = *doc, echo;
    g4_buf text = { .a = o->m->a };
    g4_tree to = g4_tree_open(o, G4_JSON_OBJECT);
    if (from->kind != G4_JSON_OBJECT)
        return g4_openai_fail(o, NULL, "expected an object with input, found %s", g4_json_kind_name(from));
    g4_responses_echo(&text, from);
    g4_tree_keep(o, &text, &echo);
    g4_buf_free(&text);
    info->repeats = echo.text;
    for (int i = 0; i < 7; i++) g4_tree_put(o, &to, same[i], g4_json_get(from, same[i]));
    g4_tree_put(o, &to, "max_tokens", g4_json_get(from, "max_output_tokens"));
    g4_status st = g4_responses_refuse(o, from);
    if (st == G4_OK) st = g4_responses_effort(o, from, &to);
    if (st == G4_OK) st = g4_responses_format(o, from, &to);
    if (st == G4_OK) st = g4_responses_logprobs(o, from, &to);
    if (st == G4_OK) st = g4_responses_items(o, from, &to);
    *doc = to.node;
    o->wording = &g4_responses_wording;
    return st == G4_OK && o->no_memory ? g4_fail(o->err, G4_ERR_MEMORY, "no memory for a request") : st;
}

/* ---- Items ----------------------------------------------------------------------------------------- */

typedef enum { G4_ITEM_BEGUN, G4_ITEM_WHOLE, G4_ITEM_CUT } g4_item_state;

/* The name of the item that part `index` of the answer becomes. */
static void g4_responses_id(g4_buf *b, const g4_answer *c, g4_part_kind kind, int index)
{
    const char *prefix = kind == G4_PART_TOOL_CALL ? "fc" : kind == G4_PART_THOUGHT ? "rs" : "msg";
    g4_buf_fmt(b, "\"%s_%016" PRIx64 "_%d\"", prefix, c->id, index);
}

/* What a message or a thought holds. */
static void g4_responses_content(g4_buf *b, g4_part_kind kind, const char *text, size_t n)
{
    g4_buf_fmt(b, "{\"type\":\"%s\",\"text\":", kind == G4_PART_THOUGHT ? "reasoning_text" : "output_text");
    g4_json_quote(b, text, n);
    if (kind == G4_PART_TEXT) g4_buf_str(b, ",\"annotations\":[],\"logprobs\":[");
}

static void g4_responses_content_end(g4_buf *b, g4_part_kind kind) { g4_buf_str(b, kind == G4_PART_TEXT ? "]}" : "}"); }

typedef struct { /* one part of an answer, as an item */
    const g4_part *part;
    const char *text;
    size_t len;
    int index, call; /* of the part; among the calls */
    const g4_token_logprob *tokens;
    int n_tokens;
    g4_item_state state;
} g4_item;

static void g4_responses_put_item(g4_buf *b, const g4_answer *c, const g4_item *item)
{
    static const char *const states[] = { "in_progress", "completed", "incomplete" };
    const g4_part_kind kind = item->part->kind;
    g4_buf_str(b, "{\"id\":");
    g4_responses_id(b, c, kind, item->index);
    if (kind == G4_PART_TOOL_CALL) {
        g4_buf_str(b, ",\"type\":\"function_call\",\"call_id\":");
        g4_answer_call_id(b, c, item->part, "call", item->call);
        g4_buf_str(b, ",\"name\":");
        g4_json_quote(b, item->part->name, strlen(item->part->name));
        g4_buf_str(b, ",\"arguments\":");
        g4_json_quote(b, item->text, item->len);
    } else {
        g4_buf_str(b, kind == G4_PART_THOUGHT ? ",\"type\":\"reasoning\",\"summary\":[],\"content\":["
                                              : ",\"type\":\"message\",\"role\":\"assistant\",\"content\":[");
        if (item->state != G4_ITEM_BEGUN) {
            g4_responses_content(b, kind, item->text, item->len);
            if (kind == G4_PART_TEXT) g4_answer_tokens(b, c->engine, item->tokens, item->n_tokens);
            g4_responses_content_end(b, kind);
        }
        g4_buf_str(b, "]");
    }
    g4_buf_fmt(b, ",\"status\":\"%s\"}", states[item->state]);
}

/* The items of an answer; tokens stand with the first text. with_cut: calls that were cut, too, as they have been told.
 */
static void g4_responses_items_of(g4_buf *b, const g4_answer *c, int with_cut)
{
    int n = 0, n_calls = 0, n_texts = 0;
    for (int i = 0; i < c->n_parts; i++) {
        const g4_part *p = &c->parts[i];
        const size_t len = g4_part_len(p);
        const int is_call = p->kind == G4_PART_TOOL_CALL;
        n_calls += is_call;
        if (is_call ? p->name == NULL || (p->incomplete && !with_cut)
                    : len == 0 || (p->kind != G4_PART_TEXT && p->kind != G4_PART_THOUGHT))
            continue;
        if (n++ > 0) g4_buf_str(b, ",");
        const int has_tokens = p->kind == G4_PART_TEXT && c->want_logprobs && n_texts++ == 0;
        g4_responses_put_item(b, c,
                              &(g4_item) { .part = p,
                                           .text = len > 0   ? p->text
                                                   : is_call ? "{}"
                                                             : "",
                                           .len = len > 0   ? len
                                                  : is_call ? 2
                                                            : 0,
                                           .index = i,
                                           .call = n_calls - 1,
                                           .tokens = c->logprobs,
                                           .n_tokens = has_tokens ? c->n_logprobs : 0,
                                           .state = p->incomplete ? G4_ITEM_CUT : G4_ITEM_WHOLE });
    }
}

/* ---- Answers --------------------------------------------------------------------------------------- */

static void g4_responses_head(g4_buf *b, const g4_answer *c, const char *status)
{
    const char *model = c->model != NULL ? c->model : "gemma4";
    g4_buf_fmt(b,
               "{\"id\":\"resp_%016" PRIx64 "\",\"object\":\"response\",\"created_at\":%" PRId64 ",\"status\":\"%s\"",
               c->id, g4_answer_created(c), status);
    g4_buf_str(b, ",\"model\":");
    g4_json_quote(b, model, strlen(model));
    g4_buf_str(b, ",\"background\":false,\"previous_response_id\":null,\"store\":false");
    if (c->request != NULL && c->request->repeats != NULL)
        g4_buf_str(b, c->request->repeats);
    else
        g4_responses_echo(b, NULL);
}

static void g4_responses_usage(g4_buf *b, const g4_answer *c)
{
    const int n = c->result.n_tokens;
    g4_buf_fmt(b,
               ",\"usage\":{\"input_tokens\":%d,\"input_tokens_details\":{\"cached_tokens\":%d},\"output_tokens\":%d",
               c->prompt_tokens, c->cached_tokens, n);
    g4_buf_fmt(b, ",\"output_tokens_details\":{\"reasoning_tokens\":%d},\"total_tokens\":%d}", c->thought_tokens,
               c->prompt_tokens + n);
}

static int g4_responses_is_whole(const g4_answer *c, int has_cut_call)
{
    return g4_answer_ending(c, has_cut_call) < G4_ANSWER_CUT;
}

static void g4_responses_object(g4_buf *b, const g4_answer *c, int has_cut_call)
{
    const int is_whole = g4_responses_is_whole(c, has_cut_call);
    g4_responses_head(b, c, is_whole ? "completed" : "incomplete");
    g4_buf_str(b, ",\"error\":null,\"incomplete_details\":");
    g4_buf_str(b, is_whole ? "null" : "{\"reason\":\"max_output_tokens\"}");
    g4_buf_str(b, ",\"output\":[");
    g4_responses_items_of(b, c, has_cut_call);
    g4_buf_str(b, "]");
    g4_responses_usage(b, c);
    g4_buf_str(b, "}");
}

void g4_answer_responses(g4_buf *b, const g4_answer *c) { g4_responses_object(b, c, 0); }

/* ---- Events ---------------------------------------------------------------------------------------- */

static void g4_responses_event(g4_stream *s, const char *type)
{
    g4_buf_fmt(&s->out, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%d", type, type, s->n_events++);
}

static void g4_responses_event_end(g4_stream *s) { g4_buf_str(&s->out, "}\n\n"); }

/* An event about the item of the part that is open, or about what it holds. */
static void g4_responses_item_event(g4_stream *s, const char *type, int is_content)
{
    g4_responses_event(s, type);
    g4_buf_str(&s->out, ",\"item_id\":");
    g4_responses_id(&s->out, &s->answer, s->part.kind, s->index);
    g4_buf_fmt(&s->out, ",\"output_index\":%d", s->n_told - 1);
    if (is_content) g4_buf_str(&s->out, ",\"content_index\":0");
}

static void g4_responses_part_event(g4_stream *s, const char *type)
{
    g4_responses_item_event(s, type, 1);
    g4_buf_str(&s->out, ",\"part\":");
    g4_responses_content(&s->out, s->part.kind, s->text.len > 0 ? s->text.data : "", s->text.len);
    g4_responses_content_end(&s->out, s->part.kind);
    g4_responses_event_end(s);
}

static void g4_responses_whole_item_event(g4_stream *s, const char *type, const g4_part *p, g4_item_state state)
{
    g4_responses_event(s, type);
    g4_buf_fmt(&s->out, ",\"output_index\":%d,\"item\":", s->n_told - 1);
    g4_responses_put_item(&s->out, &s->answer,
                          &(g4_item) { .part = p,
                                       .text = s->text.len > 0 ? s->text.data : "",
                                       .len = s->text.len,
                                       .index = s->index,
                                       .call = s->n_calls - 1,
                                       .state = state });
    g4_responses_event_end(s);
}

static void g4_responses_open_answer(g4_stream *s)
{
    static const char *const types[] = { "response.created", "response.in_progress" };
    for (int i = 0; i < 2; i++) {
        g4_responses_event(s, types[i]);
        g4_buf_str(&s->out, ",\"response\":");
        g4_responses_head(&s->out, &s->answer, "in_progress");
        g4_buf_str(&s->out, ",\"error\":null,\"incomplete_details\":null,\"output\":[],\"usage\":null}");
        g4_responses_event_end(s);
    }
}

static void g4_responses_open_part(g4_stream *s, const g4_part *p)
{
    s->text.len = 0;
    g4_responses_whole_item_event(s, "response.output_item.added", p, G4_ITEM_BEGUN);
    if (s->part.kind != G4_PART_TOOL_CALL) g4_responses_part_event(s, "response.content_part.added");
}

static void g4_responses_add_text(g4_stream *s, const char *text, size_t n)
{
    static const char *const types[] = { [G4_PART_TEXT] = "response.output_text.delta",
                                         [G4_PART_THOUGHT] = "response.reasoning_text.delta",
                                         [G4_PART_TOOL_CALL] = "response.function_call_arguments.delta" };
    g4_buf_add(&s->text, text, n);
    if (s->text.failed) s->out.failed = 1;
    g4_responses_item_event(s, types[s->part.kind], s->part.kind != G4_PART_TOOL_CALL);
    g4_buf_str(&s->out, ",\"delta\":");
    g4_json_quote(&s->out, text, n);
    if (s->part.kind == G4_PART_TEXT) {
        g4_buf_str(&s->out, ",\"logprobs\":[");
        g4_answer_tokens(&s->out, s->answer.engine, s->tokens, s->n_tokens);
        g4_buf_str(&s->out, "]");
        s->n_tokens = 0;
    }
    g4_responses_event_end(s);
}

static void g4_responses_close_part(g4_stream *s, int is_cut)
{
    static const char *const types[] = { [G4_PART_TEXT] = "response.output_text.done",
                                         [G4_PART_THOUGHT] = "response.reasoning_text.done",
                                         [G4_PART_TOOL_CALL] = "response.function_call_arguments.done" };
    const int is_call = s->part.kind == G4_PART_TOOL_CALL;
    const char *text = s->text.len > 0 ? s->text.data : "";
    g4_responses_item_event(s, types[s->part.kind], !is_call);
    if (is_call) {
        g4_buf_str(&s->out, ",\"name\":");
        g4_json_quote(&s->out, s->part.name, strlen(s->part.name));
    }
    g4_buf_str(&s->out, is_call ? ",\"arguments\":" : ",\"text\":");
    g4_json_quote(&s->out, text, s->text.len);
    if (s->part.kind == G4_PART_TEXT) g4_buf_str(&s->out, ",\"logprobs\":[]");
    g4_responses_event_end(s);
    if (!is_call) g4_responses_part_event(s, "response.content_part.done");
    g4_responses_whole_item_event(s, "response.output_item.done", &s->part, is_cut ? G4_ITEM_CUT : G4_ITEM_WHOLE);
}

static void g4_responses_close_answer(g4_stream *s, const g4_answer *c)
{
    const int is_whole = g4_responses_is_whole(c, s->has_cut_call);
    g4_responses_event(s, is_whole ? "response.completed" : "response.incomplete");
    g4_buf_str(&s->out, ",\"response\":");
    g4_responses_object(&s->out, c, s->has_cut_call);
    g4_responses_event_end(s);
}

static void g4_responses_refuse_answer(g4_stream *s, const g4_refusal *why)
{
    const char *message = why->message != NULL ? why->message : "";
    g4_responses_event(s, "response.failed");
    g4_buf_str(&s->out, ",\"response\":");
    g4_responses_head(&s->out, &s->answer, "failed");
    g4_buf_fmt(&s->out, ",\"error\":{\"code\":\"%s\",\"message\":",
               g4_refusal_http(why) < 500 ? "invalid_prompt" : "server_error");
    g4_json_quote(&s->out, message, strlen(message));
    g4_buf_str(&s->out, "},\"incomplete_details\":null,\"output\":[],\"usage\":null}");
    g4_responses_event_end(s);
}

const g4_stream_form g4_stream_responses = { g4_responses_open_answer,  g4_responses_open_part,
                                             g4_responses_add_text,     g4_responses_close_part,
                                             g4_responses_close_answer, g4_responses_refuse_answer };
