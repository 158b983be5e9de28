/* anthropic.c - what clients of Anthropic's /v1/messages send and read. A request becomes one in OpenAI's form, member
 * by member, so that what can be asked for here is what can be asked for there; faults keep the client's own names. An
 * answer becomes a message of blocks, or its events. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <inttypes.h>
#include <string.h>

/* ---- Requests: blocks ----------------------------------------------------------------------------- */

static const char *const g4_anthropic_names[][2] = { { "stop", "stop_sequences" },
                                                     { "parallel_tool_calls", "tool_choice" },
                                                     { "parameters", "input_schema" },
                                                     { "tool_call_id", "tool_use_id" },
                                                     { "continue_final_message", "messages" },
                                                     { "response_format", "output_config.format" },
                                                     { NULL, NULL } };
static const g4_wording g4_anthropic_wording = { "messages", "system", g4_anthropic_names };

/* The text of a block; the block is a part of OpenAI's form as it is. */
static g4_status g4_anthropic_text(g4_openai *o, const g4_json *block, g4_tree *parts)
{
    const g4_json *text = g4_json_get(block, "text");
    if (!g4_json_is(text, G4_JSON_STRING))
        return g4_openai_fail(o, "text", "expected text, found %s", g4_json_kind_name(text));
    g4_tree part = g4_tree_open(o, G4_JSON_OBJECT);
    g4_tree_put_text(o, &part, "type", "text");
    g4_tree_put(o, &part, "text", text);
    g4_tree_put(o, parts, NULL, part.node);
    return G4_OK;
}

/* {type: image, source: {type: base64, media_type, data}}, or {type: url, url}. */
static g4_status g4_anthropic_image(g4_openai *o, const g4_json *block, g4_tree *parts)
{
    const g4_json *source = g4_json_get(block, "source"), *type = g4_json_get(source, "type");
    const int is_url = g4_json_is_text(type, "url");
    if (!is_url && !g4_json_is_text(type, "base64"))
        return g4_openai_fail(o, g4_json_is(source, G4_JSON_OBJECT) ? "source.type" : "source",
                              "expected base64 or url, found %s",
                              g4_json_is(type, G4_JSON_STRING) ? type->text : g4_json_kind_name(type));
    const char *name = is_url ? "url" : "data";
    const g4_json *data = g4_json_get(source, name);
    if (!g4_json_is(data, G4_JSON_STRING))
        return g4_openai_fail(o, is_url ? "source.url" : "source.data", "expected text, found %s",
                              g4_json_kind_name(data));
    g4_tree part = g4_tree_open(o, G4_JSON_OBJECT);
    g4_tree_put_text(o, &part, "type", "image");
    g4_tree_put(o, &part, name, data);
    g4_tree_put(o, parts, NULL, part.node);
    return G4_OK;
}

static g4_status g4_anthropic_other(g4_openai *o, const g4_json *block, const char *expected)
{
    const g4_json *type = g4_json_get(block, "type");
    if (!g4_json_is(block, G4_JSON_OBJECT))
        return g4_openai_fail(o, NULL, "expected an object with a type, found %s", g4_json_kind_name(block));
    return g4_openai_fail(o, "type", "expected %s, found %.40s", expected,
                          g4_json_is(type, G4_JSON_STRING) ? type->text : g4_json_kind_name(type));
}

/* Text and pictures, of a user or a tool; the place is that of what holds them. */
static g4_status g4_anthropic_shown(g4_openai *o, const g4_json *block, g4_tree *parts)
{
    if (g4_json_is_text(g4_json_get(block, "type"), "text")) return g4_anthropic_text(o, block, parts);
    if (g4_json_is_text(g4_json_get(block, "type"), "image")) return g4_anthropic_image(o, block, parts);
    return g4_anthropic_other(o, block, "text, image or tool_result");
}

/* A list of blocks of text as one text, a line for each, in the arena; or a text as it is. */
static g4_status g4_anthropic_joined(g4_openai *o, const g4_json *content, const char *member, g4_json *out)
{
    g4_buf all = { .a = o->m->a };
    g4_status st = G4_OK;
    int i = 0;
    *out = (g4_json) { .kind = G4_JSON_STRING, .text = "" };
    if (g4_json_is(content, G4_JSON_STRING)) *out = *content;
    if (content == NULL || content->kind == G4_JSON_NULL || content->kind == G4_JSON_STRING) return G4_OK;
    if (content->kind != G4_JSON_ARRAY)
        return g4_openai_fail(o, member, "expected text or a list of blocks, found %s", g4_json_kind_name(content));
    const size_t len = strlen(o->place);
    for (const g4_json *block = content->child; block != NULL && st == G4_OK; block = block->next, i++) {
        const g4_json *text = g4_json_get(block, "text");
        g4_openai_enter(o, "%s[%d]", member, i);
        if (!g4_json_is_text(g4_json_get(block, "type"), "text"))
            st = g4_anthropic_other(o, block, "text");
        else if (!g4_json_is(text, G4_JSON_STRING))
            st = g4_openai_fail(o, "text", "expected text, found %s", g4_json_kind_name(text));
        if (st != G4_OK) break;
        if (i > 0) g4_buf_str(&all, "\n");
        g4_buf_add(&all, text->text, text->text_len);
        o->place[len] = '\0';
    }
    if (st == G4_OK) g4_tree_keep(o, &all, out);
    g4_buf_free(&all);
    return st;
}

/* ---- Requests: messages --------------------------------------------------------------------------- */

typedef struct {
    g4_openai *o;
    g4_tree messages;
    g4_origin *origins;
    int n; /* messages so far */
} g4_anthropic;

static void g4_anthropic_add(g4_anthropic *w, const g4_tree *message, int index, int block)
{
    g4_tree_put(w->o, &w->messages, NULL, message->node);
    w->origins[w->n++] = (g4_origin) { index, block };
}

static g4_tree g4_anthropic_message(g4_anthropic *w, const char *role)
{
    g4_tree message = g4_tree_open(w->o, G4_JSON_OBJECT);
    g4_tree_put_text(w->o, &message, "role", role);
    return message;
}

/* What a tool returned, as text or parts. An error is an object that says so: results have no flag. */
static g4_status g4_anthropic_returned(g4_openai *o, const g4_json *block, g4_tree *message)
{
    const g4_json *content = g4_json_get(block, "content"), *is_error = g4_json_given(block, "is_error");
    g4_json text = { .kind = G4_JSON_STRING };
    g4_status st = G4_OK;
    if (is_error != NULL && is_error->kind != G4_JSON_TRUE && is_error->kind != G4_JSON_FALSE)
        return g4_openai_fail(o, "is_error", "expected true or false, found %s", g4_json_kind_name(is_error));
    if (g4_json_is(is_error, G4_JSON_TRUE)) {
        st = g4_anthropic_joined(o, content, "content", &text);
        g4_tree said = g4_tree_open(o, G4_JSON_OBJECT);
        g4_tree_put(o, &said, "error", &text);
        if (st == G4_OK) g4_tree_spell(o, said.node);
        g4_tree_put(o, message, "content", said.node);
        return st;
    }
    if (!g4_json_is(content, G4_JSON_ARRAY)) {
        st = g4_anthropic_joined(o, content, "content", &text);
        g4_tree_put(o, message, "content", &text);
        return st;
    }
    g4_tree parts = g4_tree_open(o, G4_JSON_ARRAY);
    const size_t len = strlen(o->place);
    int i = 0;
    for (const g4_json *b = content->child; b != NULL && st == G4_OK; b = b->next, i++) {
        g4_openai_enter(o, "content[%d]", i);
        st = g4_anthropic_shown(o, b, &parts);
        if (st == G4_OK) o->place[len] = '\0';
    }
    g4_tree_put(o, message, "content", parts.node);
    return st;
}

static g4_status g4_anthropic_result(g4_anthropic *w, const g4_json *block, int index, int i)
{
    const g4_json *id = g4_json_get(block, "tool_use_id");
    if (!g4_json_is(id, G4_JSON_STRING))
        return g4_openai_fail(w->o, "tool_use_id", "expected text, found %s", g4_json_kind_name(id));
    g4_tree message = g4_anthropic_message(w, "tool");
    g4_tree_put(w->o, &message, "tool_call_id", id);
    const g4_status st = g4_anthropic_returned(w->o, block, &message);
    if (st == G4_OK) g4_anthropic_add(w, &message, index, i);
    return st;
}

/* Results come first, whatever stands before them: they follow the calls. */
static g4_status g4_anthropic_user(g4_anthropic *w, const g4_json *content, int index)
{
    g4_openai *o = w->o;
    g4_tree message = g4_anthropic_message(w, "user"), parts = g4_tree_open(o, G4_JSON_ARRAY);
    g4_status st = G4_OK;
    int n_results = 0;
    for (int pass = 0; pass < 2; pass++) {
        int i = 0;
        for (const g4_json *b = content->child; b != NULL && st == G4_OK; b = b->next, i++) {
            const int is_result = g4_json_is_text(g4_json_get(b, "type"), "tool_result");
            if (is_result != (pass == 0)) continue;
            if (g4_ask(&o->asker)) return g4_halt_check(o->asker.halt, o->err);
            o->place[0] = '\0';
            g4_openai_enter(o, "messages[%d].content[%d]", index, i);
            n_results += is_result;
            st = is_result ? g4_anthropic_result(w, b, index, i) : g4_anthropic_shown(o, b, &parts);
        }
    }
    if (st != G4_OK || (n_results > 0 && parts.node->child == NULL)) return st;
    g4_tree_put(o, &message, "content", parts.node);
    g4_anthropic_add(w, &message, index, -1);
    return st;
}

static g4_status g4_anthropic_call(g4_openai *o, const g4_json *block, g4_tree *calls)
{
    const g4_json *id = g4_json_get(block, "id"), *name = g4_json_get(block, "name"),
                  *input = g4_json_given(block, "input");
    if (!g4_json_is(id, G4_JSON_STRING))
        return g4_openai_fail(o, "id", "expected text, found %s", g4_json_kind_name(id));
    if (!g4_json_is(name, G4_JSON_STRING))
        return g4_openai_fail(o, "name", "expected text, found %s", g4_json_kind_name(name));
    if (input != NULL && input->kind != G4_JSON_OBJECT)
        return g4_openai_fail(o, "input", "expected an object, found %s", g4_json_kind_name(input));
    g4_tree call = g4_tree_open(o, G4_JSON_OBJECT), function = g4_tree_open(o, G4_JSON_OBJECT);
    g4_tree_put(o, &function, "name", name);
    g4_tree_put(o, &function, "arguments", input);
    g4_tree_put(o, &call, "id", id);
    g4_tree_put(o, &call, "function", function.node);
    g4_tree_put(o, calls, NULL, call.node);
    return G4_OK;
}

/* A block of an answer. What a thought is hidden as means nothing here, and is left out. */
static g4_status g4_anthropic_block(g4_openai *o, const g4_json *b, g4_tree *parts, g4_tree *calls, g4_buf *thought)
{
    const g4_json *type = g4_json_get(b, "type"), *text = g4_json_get(b, "thinking");
    if (g4_json_is_text(type, "text")) return g4_anthropic_text(o, b, parts);
    if (g4_json_is_text(type, "tool_use")) return g4_anthropic_call(o, b, calls);
    if (g4_json_is_text(type, "redacted_thinking")) return G4_OK;
    if (!g4_json_is_text(type, "thinking")) return g4_anthropic_other(o, b, "text, thinking or tool_use");
    if (!g4_json_is(text, G4_JSON_STRING))
        return g4_openai_fail(o, "thinking", "expected text, found %s", g4_json_kind_name(text));
    g4_buf_add(thought, text->text, text->text_len);
    return G4_OK;
}

static g4_status g4_anthropic_model(g4_anthropic *w, const g4_json *content, int index)
{
    g4_openai *o = w->o;
    g4_tree message = g4_anthropic_message(w, "assistant"), parts = g4_tree_open(o, G4_JSON_ARRAY),
            calls = g4_tree_open(o, G4_JSON_ARRAY);
    g4_buf thought = { .a = o->m->a };
    g4_json all;
    g4_status st = G4_OK;
    int i = 0;
    for (const g4_json *b = content->child; b != NULL && st == G4_OK; b = b->next, i++) {
        if (g4_ask(&o->asker)) st = g4_halt_check(o->asker.halt, o->err);
        o->place[0] = '\0';
        g4_openai_enter(o, "messages[%d].content[%d]", index, i);
        if (st == G4_OK) st = g4_anthropic_block(o, b, &parts, &calls, &thought);
    }
    if (st == G4_OK) {
        g4_tree_put(o, &message, "content", parts.node->child != NULL ? parts.node : NULL);
        g4_tree_keep(o, &thought, &all);
        if (thought.len > 0) g4_tree_put(o, &message, "reasoning_content", &all);
        if (calls.node->child != NULL) g4_tree_put(o, &message, "tool_calls", calls.node);
        g4_anthropic_add(w, &message, index, -1);
    }
    g4_buf_free(&thought);
    return st;
}

static g4_status g4_anthropic_turn(g4_anthropic *w, const g4_json *turn, int index)
{
    g4_openai *o = w->o;
    const g4_json *role = g4_json_get(turn, "role"), *content = g4_json_get(turn, "content");
    const int is_user = g4_json_is_text(role, "user");
    if (g4_ask(&o->asker)) return g4_halt_check(o->asker.halt, o->err);
    o->place[0] = '\0';
    g4_openai_enter(o, "messages[%d]", index);
    if (turn->kind != G4_JSON_OBJECT)
        return g4_openai_fail(o, NULL, "expected an object, found %s", g4_json_kind_name(turn));
    if (!is_user && !g4_json_is_text(role, "assistant"))
        return g4_openai_fail(o, "role", "expected user or assistant, found %.40s",
                              g4_json_is(role, G4_JSON_STRING) ? role->text : g4_json_kind_name(role));
    if (g4_json_is(content, G4_JSON_STRING)) {
        g4_tree message = g4_anthropic_message(w, is_user ? "user" : "assistant");
        g4_tree_put(o, &message, "content", content);
        g4_anthropic_add(w, &message, index, -1);
        return G4_OK;
    }
    if (!g4_json_is(content, G4_JSON_ARRAY))
        return g4_openai_fail(o, "content", "expected text or a list of blocks, found %s", g4_json_kind_name(content));
    return is_user ? g4_anthropic_user(w, content, index) : g4_anthropic_model(w, content, index);
}

/* Instructions stand in front. An answer that stands last is gone on with. */
static g4_status g4_anthropic_turns(g4_openai *o, const g4_json *from, g4_tree *to)
{
    const g4_json *turns = g4_json_given(from, "messages"), *system = g4_json_given(from, "system"), *last = NULL;
    g4_anthropic w = { .o = o, .messages = g4_tree_open(o, G4_JSON_ARRAY) };
    size_t most = 2;
    int i = 0;
    if (!g4_json_is(turns, G4_JSON_ARRAY))
        return g4_openai_fail(o, "messages", "expected a list, found %s", g4_json_kind_name(turns));
    for (const g4_json *turn = turns->child; turn != NULL; turn = turn->next, most++)
        for (const g4_json *c = g4_json_get(turn, "content"), *b = c != NULL ? c->child : NULL; b != NULL; b = b->next)
            most++;
    w.origins = g4_arena_alloc(o->m, most * sizeof *w.origins);
    if (w.origins == NULL) return g4_fail(o->err, G4_ERR_MEMORY, "no memory for a request");
    o->origins = w.origins;
    g4_status st = G4_OK;
    if (system != NULL) {
        g4_json text;
        g4_tree message = g4_anthropic_message(&w, "system");
        st = g4_anthropic_joined(o, system, "system", &text);
        g4_tree_put(o, &message, "content", &text);
        if (st == G4_OK) g4_anthropic_add(&w, &message, -1, -1);
    }
    for (const g4_json *turn = turns->child; turn != NULL && st == G4_OK; turn = turn->next, i++) {
        st = g4_anthropic_turn(&w, turn, i);
        last = turn;
    }
    if (st != G4_OK) return st;
    o->place[0] = '\0';
    o->n_origins = w.n;
    g4_tree_put(o, to, "messages", turns->child != NULL ? w.messages.node : turns);
    if (g4_json_is_text(g4_json_get(last, "role"), "assistant")) {
        const g4_json yes = { .kind = G4_JSON_TRUE };
        g4_tree_put(o, to, "continue_final_message", &yes);
    }
    return G4_OK;
}

/* ---- Requests: the rest --------------------------------------------------------------------------- */

/* Tools of the client's own; those that Anthropic runs are not here. */
static g4_status g4_anthropic_tools(g4_openai *o, g4_json *from, g4_tree *to)
{
    g4_json *tools = g4_json_find(from, "tools");
    int i = 0;
    if (tools == NULL) return G4_OK;
    for (g4_json *tool = tools->kind == G4_JSON_ARRAY ? tools->child : NULL; tool != NULL; tool = tool->next, i++) {
        g4_json *type = g4_json_find(tool, "type");
        if (type == NULL || type->kind == G4_JSON_NULL) continue;
        g4_openai_enter(o, "tools[%d]", i);
        if (!g4_json_is_text(type, "custom")) return g4_anthropic_other(o, tool, "custom");
        o->place[0] = '\0';
        type->kind = G4_JSON_NULL;
    }
    g4_tree_put(o, to, "tools", tools);
    return G4_OK;
}

static g4_status g4_anthropic_choice(g4_openai *o, const g4_json *from, g4_tree *to)
{
    static const char *const words[][2] = { { "auto", "auto" }, { "any", "required" }, { "none", "none" } };
    const g4_json *choice = g4_json_given(from, "tool_choice"), *type = g4_json_get(choice, "type"),
                  *name = g4_json_get(choice, "name"), *alone = g4_json_given(choice, "disable_parallel_tool_use");
    const g4_json no = { .kind = G4_JSON_FALSE };
    int i = 0;
    if (choice == NULL) return G4_OK;
    while (i < 3 && !g4_json_is_text(type, words[i][0])) i++;
    if (i == 3 && !g4_json_is_text(type, "tool"))
        return g4_openai_fail(o, "tool_choice.type", "expected auto, any, tool or none, found %.40s",
                              g4_json_is(type, G4_JSON_STRING) ? type->text : g4_json_kind_name(type));
    if (alone != NULL && alone->kind != G4_JSON_TRUE && alone->kind != G4_JSON_FALSE)
        return g4_openai_fail(o, "tool_choice.disable_parallel_tool_use", "expected true or false, found %s",
                              g4_json_kind_name(alone));
    if (g4_json_is(alone, G4_JSON_TRUE)) g4_tree_put(o, to, "parallel_tool_calls", &no);
    if (i < 3) {
        g4_tree_put_text(o, to, "tool_choice", words[i][1]);
        return G4_OK;
    }
    if (!g4_json_is(name, G4_JSON_STRING))
        return g4_openai_fail(o, "tool_choice.name", "expected text, found %s", g4_json_kind_name(name));
    g4_tree named = g4_tree_open(o, G4_JSON_OBJECT);
    g4_tree_put_text(o, &named, "type", "function");
    g4_tree_put(o, &named, "name", name);
    g4_tree_put(o, to, "tool_choice", named.node);
    return G4_OK;
}

static g4_status g4_anthropic_thinking(g4_openai *o, const g4_json *from, g4_tree *to, g4_request_info *info)
{
    const g4_json *thinking = g4_json_given(from, "thinking"), *type = g4_json_get(thinking, "type"),
                  *budget = g4_json_given(thinking, "budget_tokens");
    const int is_off = g4_json_is_text(type, "disabled");
    if (thinking == NULL) return G4_OK;
    if (!is_off && !g4_json_is_text(type, "enabled") && !g4_json_is_text(type, "adaptive"))
        return g4_openai_fail(o, "thinking.type", "expected enabled, adaptive or disabled, found %.40s",
                              g4_json_is(type, G4_JSON_STRING) ? type->text : g4_json_kind_name(type));
    if (budget != NULL && (budget->kind != G4_JSON_NUMBER || !(budget->number >= 1 && budget->number <= INT32_MAX) ||
                           budget->number != floor(budget->number)))
        return g4_openai_fail(o, "thinking.budget_tokens", "expected a number of tokens, found %.30s",
                              budget->kind == G4_JSON_NUMBER ? budget->text : g4_json_kind_name(budget));
    if (!is_off && budget != NULL) info->think_budget = (int)budget->number;
    const g4_json on = { .kind = is_off ? G4_JSON_FALSE : G4_JSON_TRUE };
    g4_tree_put(o, to, "enable_thinking", &on);
    return G4_OK;
}

/* {format: {type: json_schema, schema}}. */
static g4_status g4_anthropic_format(g4_openai *o, const g4_json *from, g4_tree *to)
{
    const g4_json *format = g4_json_given(g4_json_given(from, "output_config"), "format");
    const g4_json *schema = g4_json_get(format, "schema"), yes = { .kind = G4_JSON_TRUE };
    if (format == NULL) return G4_OK;
    if (!g4_json_is_text(g4_json_get(format, "type"), "json_schema") || !g4_json_is(schema, G4_JSON_OBJECT))
        return g4_openai_fail(o, "output_config.format", "expected json_schema with a schema, found %s",
                              g4_json_kind_name(format));
    g4_tree inner = g4_tree_open(o, G4_JSON_OBJECT), outer = g4_tree_open(o, G4_JSON_OBJECT);
    g4_tree_put(o, &inner, "schema", schema);
    g4_tree_put(o, &inner, "strict", &yes);
    g4_tree_put_text(o, &outer, "type", "json_schema");
    g4_tree_put(o, &outer, "json_schema", inner.node);
    g4_tree_put(o, to, "response_format", outer.node);
    return G4_OK;
}

g4_status g4_anthropic_read(g4_openai *o, g4_json **doc, g4_request_info *info)
{
    static const char *const same[] = { "model", "stream", "max_tokens", "temperature", "top_p", "top_k" };
    g4_json *from = *doc;
    g4_tree to = g4_tree_open(o, G4_JSON_OBJECT);
    if (from->kind != G4_JSON_OBJECT)
        return g4_openai_fail(o, NULL, "expected an object with messages, found %s", g4_json_kind_name(from));
    for (int i = 0; i < 6; i++) g4_tree_put(o, &to, same[i], g4_json_get(from, same[i]));
    g4_tree_put(o, &to, "stop", g4_json_get(from, "stop_sequences"));
    g4_status st = g4_anthropic_thinking(o, from, &to, info);
    if (st == G4_OK) st = g4_anthropic_tools(o, from, &to);
    if (st == G4_OK) st = g4_anthropic_choice(o, from, &to);
    if (st == G4_OK) st = g4_anthropic_format(o, from, &to);
    if (st == G4_OK) st = g4_anthropic_turns(o, from, &to);
    *doc = to.node;
    o->wording = &g4_anthropic_wording;
    return st == G4_OK && o->no_memory ? g4_fail(o->err, G4_ERR_MEMORY, "no memory for a request") : st;
}

/* ---- Answers -------------------------------------------------------------------------------------- */

static void g4_anthropic_head(g4_buf *b, const g4_answer *c)
{
    const char *model = c->model != NULL ? c->model : "gemma4";
    g4_buf_fmt(b, "{\"id\":\"msg_%016" PRIx64 "\",\"type\":\"message\",\"role\":\"assistant\",\"model\":", c->id);
    g4_json_quote(b, model, strlen(model));
}

/* What was read before is not counted with the input. */
static void g4_anthropic_usage(g4_buf *b, const g4_answer *c, int n_output)
{
    g4_buf_fmt(b,
               ",\"usage\":{\"input_tokens\":%d,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":%d,"
               "\"output_tokens\":%d}",
               c->prompt_tokens - c->cached_tokens, c->cached_tokens, n_output);
}

static void g4_anthropic_stop(g4_buf *b, const g4_answer *c, int has_cut_call)
{
    static const char *const reasons[] = { "end_turn", "stop_sequence", "tool_use", "max_tokens",
                                           "model_context_window_exceeded" };
    const g4_answer_end end = g4_answer_ending(c, has_cut_call);
    g4_buf_fmt(b, "\"stop_reason\":\"%s\",\"stop_sequence\":", reasons[end]);
    if (end == G4_ANSWER_STRING && c->result.stop_string != NULL)
        g4_json_quote(b, c->result.stop_string, strlen(c->result.stop_string));
    else
        g4_buf_str(b, "null");
}

/* A block as it begins, which is the whole of it where the text is. call: its number among the calls. */
static void g4_anthropic_begin_block(g4_buf *b, const g4_answer *c, const g4_part *p, const char *text, size_t n,
                                     int call)
{
    if (p->kind == G4_PART_TOOL_CALL) {
        g4_buf_str(b, "{\"type\":\"tool_use\",\"id\":");
        g4_answer_call_id(b, c, p, "toolu", call);
        g4_buf_str(b, ",\"name\":");
        g4_json_quote(b, p->name, strlen(p->name));
        g4_buf_str(b, ",\"input\":");
        g4_answer_arguments(b, text, n);
    } else {
        const char *type = p->kind == G4_PART_THOUGHT ? "thinking" : "text";
        g4_buf_fmt(b, "{\"type\":\"%s\",\"%s\":", type, type);
        g4_json_quote(b, text, n);
        if (p->kind == G4_PART_THOUGHT) g4_buf_str(b, ",\"signature\":\"\"");
    }
    g4_buf_str(b, "}");
}

void g4_answer_anthropic(g4_buf *b, const g4_answer *c)
{
    int n = 0, n_calls = 0;
    g4_anthropic_head(b, c);
    g4_buf_str(b, ",\"content\":[");
    for (int i = 0; i < c->n_parts; i++) {
        const g4_part *p = &c->parts[i];
        const size_t len = g4_part_len(p);
        n_calls += p->kind == G4_PART_TOOL_CALL;
        if (!g4_answer_is_call(p) && ((p->kind != G4_PART_TEXT && p->kind != G4_PART_THOUGHT) || len == 0)) continue;
        if (n++ > 0) g4_buf_str(b, ",");
        g4_anthropic_begin_block(b, c, p, len > 0 ? p->text : "", len, n_calls - 1);
    }
    g4_buf_str(b, "],");
    g4_anthropic_stop(b, c, 0);
    g4_anthropic_usage(b, c, c->result.n_tokens);
    g4_buf_str(b, "}");
}

void g4_refusal_anthropic(g4_buf *b, const g4_refusal *why)
{
    static const struct {
        int http;
        const char *type;
    } kinds[] = { { 401, "authentication_error" }, { 403, "permission_error" }, { 404, "not_found_error" },
                  { 413, "request_too_large" },    { 429, "rate_limit_error" }, { 503, "overloaded_error" },
                  { 529, "overloaded_error" } };
    const int http = g4_refusal_http(why);
    const char *type = http < 500 ? "invalid_request_error" : "api_error";
    const char *message = why->message != NULL ? why->message : "";
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (kinds[i].http == http) type = kinds[i].type;
    g4_buf_fmt(b, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":", type);
    g4_json_quote(b, message, strlen(message));
    g4_buf_str(b, "}}");
}

/* ---- Events --------------------------------------------------------------------------------------- */

/* Each has its line "event:": without it the client drops it. The data stays open. */
static void g4_anthropic_event(g4_stream *s, const char *type)
{
    g4_buf_fmt(&s->out, "event: %s\ndata: {\"type\":\"%s\"", type, type);
}

static void g4_anthropic_event_end(g4_stream *s) { g4_buf_str(&s->out, "}\n\n"); }

static void g4_anthropic_open_answer(g4_stream *s)
{
    g4_anthropic_event(s, "message_start");
    g4_buf_str(&s->out, ",\"message\":");
    g4_anthropic_head(&s->out, &s->answer);
    g4_buf_str(&s->out, ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null");
    g4_anthropic_usage(&s->out, &s->answer, 0);
    g4_buf_str(&s->out, "}");
    g4_anthropic_event_end(s);
}

static void g4_anthropic_block_event(g4_stream *s, const char *type)
{
    g4_anthropic_event(s, type);
    g4_buf_fmt(&s->out, ",\"index\":%d", s->n_told - 1);
}

static void g4_anthropic_open_part(g4_stream *s, const g4_part *p)
{
    g4_anthropic_block_event(s, "content_block_start");
    g4_buf_str(&s->out, ",\"content_block\":");
    g4_anthropic_begin_block(&s->out, &s->answer, p, "", 0, s->n_calls - 1);
    g4_anthropic_event_end(s);
}

static void g4_anthropic_delta(g4_stream *s, const char *type, const char *member, const char *text, size_t n)
{
    g4_anthropic_block_event(s, "content_block_delta");
    g4_buf_fmt(&s->out, ",\"delta\":{\"type\":\"%s\",\"%s\":", type, member);
    g4_json_quote(&s->out, text, n);
    g4_buf_str(&s->out, "}");
    g4_anthropic_event_end(s);
}

static void g4_anthropic_add_text(g4_stream *s, const char *text, size_t n)
{
    switch (s->part.kind) {
    case G4_PART_TOOL_CALL: g4_anthropic_delta(s, "input_json_delta", "partial_json", text, n); break;
    case G4_PART_THOUGHT: g4_anthropic_delta(s, "thinking_delta", "thinking", text, n); break;
    default: g4_anthropic_delta(s, "text_delta", "text", text, n); break;
    }
}

static void g4_anthropic_close_part(g4_stream *s, int is_cut)
{
    (void)is_cut; /* the reason tells */
    if (s->part.kind == G4_PART_THOUGHT) g4_anthropic_delta(s, "signature_delta", "signature", "", 0);
    g4_anthropic_block_event(s, "content_block_stop");
    g4_anthropic_event_end(s);
}

static void g4_anthropic_close_answer(g4_stream *s, const g4_answer *c)
{
    g4_anthropic_event(s, "message_delta");
    g4_buf_str(&s->out, ",\"delta\":{");
    g4_anthropic_stop(&s->out, c, s->has_cut_call);
    g4_buf_str(&s->out, "}");
    g4_anthropic_usage(&s->out, c, c->result.n_tokens);
    g4_anthropic_event_end(s);
    g4_anthropic_event(s, "message_stop");
    g4_anthropic_event_end(s);
}

static void g4_anthropic_refuse(g4_stream *s, const g4_refusal *why)
{
    g4_buf_str(&s->out, "event: error\ndata: ");
    g4_refusal_anthropic(&s->out, why);
    g4_buf_str(&s->out, "\n\n");
}

const g4_stream_form g4_stream_anthropic = { g4_anthropic_open_answer, g4_anthropic_open_part,    g4_anthropic_add_text,
                                             g4_anthropic_close_part,  g4_anthropic_close_answer, g4_anthropic_refuse };
