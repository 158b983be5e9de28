/* request.c - a request to a chat-completions endpoint, read to its last field before anything is done for it: the
 * messages and tools by openai.c, the options here. Each field has one type and one range, and what does not fit is
 * refused with the field's name, so that a client learns what to change. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <string.h>

#define G4_MAX_STOPS 64 /* each costs a look at every character of the answer */
#define G4_MAX_TOP 64   /* as many as g4_generate_options takes */

struct g4_request {
    const g4_allocator *a;
    g4_arena arena; /* the document */
    g4_request_info info;
    g4_json *messages, *tools;
    g4_buf tools_text, callable_text, schema_text;
    const char **stop;
    g4_logit_bias *bias;
    g4_request_prompt *prompts;
    const g4_origin *origins;                     /* of the messages; NULL: they are the client's */
    int is_line;                                  /* of a batch */
    int preserve_thinking, add_generation_prompt; /* -1: not given */
};

/* ---- Fields of one type -------------------------------------------------------------------------- */

static g4_status g4_field_bool(g4_openai *o, const g4_json *object, const char *key, int *out)
{
    const g4_json *v = g4_json_given(object, key);
    if (v == NULL) return G4_OK;
    if (v->kind != G4_JSON_TRUE && v->kind != G4_JSON_FALSE)
        return g4_openai_fail(o, key, "expected true or false, found %s", g4_json_kind_name(v));
    *out = v->kind == G4_JSON_TRUE;
    return G4_OK;
}

static g4_status g4_field_number(g4_openai *o, const g4_json *object, const char *key, double min, double max,
                                 double *out)
{
    const g4_json *v = g4_json_given(object, key);
    if (v == NULL) return G4_OK;
    if (v->kind != G4_JSON_NUMBER) return g4_openai_fail(o, key, "expected a number, found %s", g4_json_kind_name(v));
    if (!(v->number >= min && v->number <= max))
        return g4_openai_fail(o, key, "expected a number from %g to %g, found %.30s", min, max, v->text);
    *out = v->number;
    return G4_OK;
}

static g4_status g4_field_int(g4_openai *o, const g4_json *object, const char *key, int min, int max, int *out)
{
    const g4_json *v = g4_json_given(object, key);
    if (v == NULL) return G4_OK;
    if (v->kind != G4_JSON_NUMBER)
        return g4_openai_fail(o, key, "expected a whole number, found %s", g4_json_kind_name(v));
    if (!(v->number >= min && v->number <= max) || v->number != floor(v->number))
        return g4_openai_fail(o, key, "expected a whole number from %d to %d, found %.30s", min, max, v->text);
    *out = (int)v->number;
    return G4_OK;
}

static g4_status g4_field_text(g4_openai *o, const g4_json *object, const char *key, const char **out)
{
    const g4_json *v = g4_json_given(object, key);
    if (v == NULL) return G4_OK;
    if (v->kind != G4_JSON_STRING) return g4_openai_fail(o, key, "expected text, found %s", g4_json_kind_name(v));
    *out = v->text;
    return G4_OK;
}

static g4_status g4_field_object(g4_openai *o, const g4_json *object, const char *key, const g4_json **out)
{
    const g4_json *v = g4_json_given(object, key);
    *out = v;
    if (v == NULL || v->kind == G4_JSON_OBJECT) return G4_OK;
    return g4_openai_fail(o, key, "expected an object, found %s", g4_json_kind_name(v));
}

static g4_status g4_request_no_memory(g4_openai *o)
{
    return g4_fail(o->err, G4_ERR_MEMORY, "no memory for a request");
}

/* ---- Sampling ------------------------------------------------------------------------------------ */

/* -1 is what some clients say for no limit. */
static g4_status g4_request_read_max(g4_openai *o, const g4_json *doc, const char *key, int *out)
{
    int n = *out;
    const g4_status st = g4_field_int(o, doc, key, -1, INT32_MAX, &n);
    if (st != G4_OK) return st;
    if (n == 0 && g4_json_given(doc, key) != NULL)
        return g4_openai_fail(o, key, "expected at least 1 token, or -1 for no limit, found 0");
    *out = n < 0 ? 0 : n;
    return G4_OK;
}

/* Whole numbers of 64 bits, the negative ones too. */
static g4_status g4_request_read_seed(g4_openai *o, const g4_json *doc, g4_request_info *out)
{
    double seed = 0;
    const g4_status st = g4_field_number(o, doc, "seed", -9223372036854775808.0, 18446744073709549568.0, &seed);
    if (st != G4_OK) return st;
    if (seed != floor(seed)) return g4_openai_fail(o, "seed", "expected a whole number, found a fraction");
    out->has_seed = g4_json_given(doc, "seed") != NULL;
    out->seed = seed < 0 ? (uint64_t)(int64_t)seed : (uint64_t)seed;
    return G4_OK;
}

static g4_status g4_request_read_sampling(g4_openai *o, const g4_json *doc, g4_request_info *out)
{
    const struct {
        const char *key;
        double min, max, *out;
    } numbers[] = { { "temperature", 0, 1e6, &out->temperature },
                    { "top_p", 0, 1, &out->top_p },
                    { "min_p", 0, 1, &out->min_p },
                    { "repetition_penalty", 0, 1e6, &out->repeat_penalty },
                    { "repeat_penalty", 0, 1e6, &out->repeat_penalty },
                    { "presence_penalty", -1e6, 1e6, &out->presence_penalty },
                    { "frequency_penalty", -1e6, 1e6, &out->frequency_penalty } };
    g4_status st = G4_OK;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0] && st == G4_OK; i++)
        st = g4_field_number(o, doc, numbers[i].key, numbers[i].min, numbers[i].max, numbers[i].out);
    if (st == G4_OK) st = g4_request_read_max(o, doc, "max_tokens", &out->max_tokens);
    if (st == G4_OK) st = g4_request_read_max(o, doc, "max_completion_tokens", &out->max_tokens);
    if (st == G4_OK) st = g4_field_int(o, doc, "top_k", -1, INT32_MAX, &out->top_k);
    if (out->top_k < 0 && g4_json_given(doc, "top_k") != NULL) out->top_k = 0; /* -1 is off to some clients */
    return st == G4_OK ? g4_request_read_seed(o, doc, out) : st;
}

/* A text or a list of them. Empty ones would end every answer at once: they say nothing. */
static g4_status g4_request_read_stop(g4_openai *o, const g4_json *doc, g4_request *r)
{
    const g4_json *v = g4_json_given(doc, "stop");
    const int is_list = g4_json_is(v, G4_JSON_ARRAY);
    if (v == NULL) return G4_OK;
    if (!is_list && v->kind != G4_JSON_STRING)
        return g4_openai_fail(o, "stop", "expected text or a list of texts, found %s", g4_json_kind_name(v));
    r->stop = g4_alloc(r->a, G4_MAX_STOPS, sizeof *r->stop);
    if (r->stop == NULL) return g4_request_no_memory(o);
    for (const g4_json *s = is_list ? v->child : v; s != NULL; s = is_list ? s->next : NULL) {
        if (s->kind != G4_JSON_STRING)
            return g4_openai_fail(o, "stop", "expected a list of texts, found %s in it", g4_json_kind_name(s));
        if (strlen(s->text) != s->text_len) return g4_openai_fail(o, "stop", "a text must not hold a NUL");
        if (s->text_len == 0) continue;
        if (r->info.n_stop == G4_MAX_STOPS) return g4_openai_fail(o, "stop", "more than %d texts", G4_MAX_STOPS);
        r->stop[r->info.n_stop++] = s->text;
    }
    r->info.stop = r->stop;
    return G4_OK;
}

/* A token id as text; -1: it is none. */
static g4_token g4_request_token(const char *s, size_t n)
{
    int64_t id = 0;
    for (size_t i = 0; i < n; i++) {
        if (!g4_is_digit(s[i]) || n > 9) return -1;
        id = 10 * id + (s[i] - '0');
    }
    return n > 0 ? (g4_token)id : -1;
}

/* {"token id": number}. */
static g4_status g4_request_read_bias(g4_openai *o, const g4_json *doc, g4_request *r)
{
    const g4_json *v = NULL;
    size_t n = 0;
    const g4_status st = g4_field_object(o, doc, "logit_bias", &v);
    if (st != G4_OK || v == NULL) return st;
    for (const g4_json *c = v->child; c != NULL && n < INT32_MAX; c = c->next) n++;
    r->bias = g4_alloc(r->a, n > 0 ? n : 1, sizeof *r->bias);
    if (r->bias == NULL) return g4_request_no_memory(o);
    for (const g4_json *c = v->child; c != NULL && (size_t)r->info.n_bias < n; c = c->next) {
        const g4_token id = g4_request_token(c->key, c->key_len);
        if (id < 0) return g4_openai_fail(o, "logit_bias", "expected token ids as names, found \"%.30s\"", c->key);
        if (c->kind != G4_JSON_NUMBER || !(fabs(c->number) <= 1e6))
            return g4_openai_fail(o, "logit_bias", "expected numbers from -1e6 to 1e6, found %s for token %d",
                                  c->kind == G4_JSON_NUMBER ? c->text : g4_json_kind_name(c), (int)id);
        r->bias[r->info.n_bias++] = (g4_logit_bias) { id, (float)c->number };
    }
    r->info.bias = r->bias;
    return G4_OK;
}

/* true or false beside messages; beside a prompt how many of the best tokens, too. */
static g4_status g4_request_read_logprobs(g4_openai *o, const g4_json *doc, g4_request_info *out)
{
    if (g4_json_given(doc, "prompt") != NULL && g4_json_is(g4_json_get(doc, "logprobs"), G4_JSON_NUMBER)) {
        out->want_logprobs = 1;
        return g4_field_int(o, doc, "logprobs", 0, G4_MAX_TOP, &out->n_top);
    }
    g4_status st = g4_field_bool(o, doc, "logprobs", &out->want_logprobs);
    if (st == G4_OK) st = g4_field_int(o, doc, "top_logprobs", 0, G4_MAX_TOP, &out->n_top);
    if (out->n_top > 0) out->want_logprobs = 1;
    return st;
}

/* ---- Thinking ------------------------------------------------------------------------------------ */

static g4_status g4_request_read_effort(g4_openai *o, const g4_json *doc, g4_request_info *out)
{
    static const struct {
        const char *name;
        int thinking, budget;
    } efforts[] = { { "none", 0, 0 },     { "minimal", 1, 256 }, { "low", 1, 1024 }, { "medium", 1, 4096 },
                    { "high", 1, 16384 }, { "xhigh", 1, 32768 }, { "max", 1, 0 } };
    const char *effort = NULL;
    const g4_status st = g4_field_text(o, doc, "reasoning_effort", &effort);
    if (st != G4_OK || effort == NULL) return st;
    for (size_t i = 0; i < sizeof efforts / sizeof efforts[0]; i++) {
        if (strcmp(effort, efforts[i].name) != 0) continue;
        out->thinking = efforts[i].thinking;
        out->think_budget = efforts[i].budget;
        return G4_OK;
    }
    return g4_openai_fail(o, "reasoning_effort",
                          "expected none, minimal, low, medium, high, xhigh or max, found \"%.30s\"", effort);
}

/* enable_thinking says whether, reasoning_effort how long; what stands in the request itself wins. */
static g4_status g4_request_read_thinking(g4_openai *o, const g4_json *doc, g4_request *r)
{
    const g4_json *kwargs = NULL;
    g4_status st = g4_request_read_effort(o, doc, &r->info);
    if (st == G4_OK) st = g4_field_object(o, doc, "chat_template_kwargs", &kwargs);
    for (int i = 0; i < 2 && st == G4_OK; i++) {
        const g4_json *from = i == 0 ? kwargs : doc;
        if (i == 0) memcpy(o->place, "chat_template_kwargs", sizeof "chat_template_kwargs");
        st = g4_field_bool(o, from, "enable_thinking", &r->info.thinking);
        if (st == G4_OK) st = g4_field_bool(o, from, "preserve_thinking", &r->preserve_thinking);
        o->place[0] = '\0';
    }
    return st;
}

/* ---- Tools --------------------------------------------------------------------------------------- */

static const g4_json *g4_tool_name(const g4_json *tool) { return g4_json_get(g4_json_get(tool, "function"), "name"); }

typedef struct { /* tools by their names; of several with one name, the first */
    const g4_allocator *a;
    const g4_json **tools;
    int n;
    g4_hash_table table;
} g4_tool_index;

static void g4_tool_index_close(g4_tool_index *x)
{
    g4_free(x->a, x->tools);
    g4_free(x->a, x->table.slots);
}

static const g4_json *g4_tool_index_find(const g4_tool_index *x, const g4_json *name)
{
    uint32_t at = 0;
    if (!g4_json_is(name, G4_JSON_STRING) || x->n == 0) return NULL;
    for (int32_t i; (i = g4_table_next(&x->table, g4_hash_bytes(name->text, name->text_len), &at)) >= 0;)
        if (g4_json_equal(g4_tool_name(x->tools[i]), name)) return x->tools[i];
    return NULL;
}

/* Returns 0 when there is no memory; close it all the same. */
static int g4_tool_index_open(g4_tool_index *x, const g4_allocator *a, const g4_json *tools)
{
    int n = 0;
    for (const g4_json *t = tools != NULL ? tools->child : NULL; t != NULL; t = t->next) n++;
    *x = (g4_tool_index) { .a = a, .tools = g4_alloc(a, (size_t)n + 1, sizeof *x->tools) };
    if (x->tools == NULL) return 0;
    for (const g4_json *t = n > 0 ? tools->child : NULL; t != NULL; t = t->next) {
        const g4_json *name = g4_tool_name(t);
        if (!g4_json_is(name, G4_JSON_STRING) || g4_tool_index_find(x, name) != NULL) continue;
        if (!g4_table_reserve(&x->table, a, x->n + 1)) return 0;
        x->tools[x->n] = t;
        g4_table_put(&x->table, g4_hash_bytes(name->text, name->text_len), x->n++);
    }
    return 1;
}

/* The tool that {type: function, function: {name}} or {type: function, name} means. */
static g4_status g4_request_chosen(g4_openai *o, const g4_tool_index *tools, const g4_json *choice,
                                   const g4_json **tool)
{
    const g4_json *name = g4_json_given(g4_json_given(choice, "function"), "name");
    if (name == NULL) name = g4_json_given(choice, "name");
    if (!g4_json_is_text(g4_json_get(choice, "type"), "function") || !g4_json_is(name, G4_JSON_STRING))
        return g4_openai_fail(o, "tool_choice", "expected a function with its name, found %s",
                              g4_json_kind_name(choice));
    *tool = g4_tool_index_find(tools, name);
    if (*tool != NULL) return G4_OK;
    return g4_openai_fail(o, "tool_choice", "no tool is named \"%.40s\"", name->text);
}

/* The mode auto or required, and the tools that it is about. */
static g4_status g4_request_allowed(g4_openai *o, g4_request *r, const g4_tool_index *tools, const g4_json *choice)
{
    const g4_json *inner = g4_json_given(choice, "allowed_tools"), *from = inner != NULL ? inner : choice;
    const g4_json *mode = g4_json_given(from, "mode"), *list = g4_json_given(from, "tools"), *tool = NULL;
    if (!g4_json_is_text(mode, "auto") && !g4_json_is_text(mode, "required"))
        return g4_openai_fail(o, "tool_choice.allowed_tools.mode", "expected \"auto\" or \"required\", found %s",
                              g4_json_kind_name(mode));
    if (!g4_json_is(list, G4_JSON_ARRAY) || list->child == NULL)
        return g4_openai_fail(o, "tool_choice.allowed_tools.tools", "expected a list of functions, found %s",
                              g4_json_is(list, G4_JSON_ARRAY) ? "none in it" : g4_json_kind_name(list));
    r->info.tool_choice = g4_json_is_text(mode, "auto") ? G4_TOOLS_AUTO : G4_TOOLS_REQUIRED;
    g4_buf_str(&r->callable_text, "[");
    for (const g4_json *c = list->child; c != NULL; c = c->next) {
        const g4_status st = g4_request_chosen(o, tools, c, &tool);
        if (st != G4_OK) return st;
        if (c != list->child) g4_buf_str(&r->callable_text, ",");
        g4_json_write(&r->callable_text, tool);
    }
    g4_buf_str(&r->callable_text, "]");
    return G4_OK;
}

static g4_status g4_request_read_word_choice(g4_openai *o, const g4_json *choice, g4_request_info *out)
{
    static const char *const words[] = { "auto", "none", "required" };
    static const g4_tool_choice choices[] = { G4_TOOLS_AUTO, G4_TOOLS_NONE, G4_TOOLS_REQUIRED };
    int i = 0;
    while (i < 3 && !g4_json_is_text(choice, words[i])) i++;
    if (i == 3)
        return g4_openai_fail(o, "tool_choice", "expected none, auto, required or a function, found \"%.30s\"",
                              choice->text);
    out->tool_choice = choices[i];
    return G4_OK;
}

/* A choice that names tools: one to call, or those that may be called. */
static g4_status g4_request_read_names(g4_openai *o, const g4_json *choice, g4_request *r)
{
    const g4_json *tool = NULL;
    g4_tool_index tools;
    g4_status st;
    if (!g4_tool_index_open(&tools, o->m->a, r->tools)) {
        st = g4_request_no_memory(o);
    } else if (g4_json_is_text(g4_json_get(choice, "type"), "allowed_tools")) {
        st = g4_request_allowed(o, r, &tools, choice);
    } else {
        st = g4_request_chosen(o, &tools, choice, &tool);
        r->info.tool_choice = G4_TOOLS_NAMED;
        if (st == G4_OK) r->info.tool_name = g4_tool_name(tool)->text;
    }
    g4_tool_index_close(&tools);
    return st;
}

static g4_status g4_request_read_choice(g4_openai *o, const g4_json *doc, g4_request *r)
{
    const g4_json *choice = g4_json_given(doc, "tool_choice");
    if (choice == NULL) return G4_OK;
    const g4_status st = choice->kind == G4_JSON_STRING ? g4_request_read_word_choice(o, choice, &r->info)
                                                        : g4_request_read_names(o, choice, r);
    if (st == G4_OK && r->tools == NULL && r->info.tool_choice >= G4_TOOLS_REQUIRED)
        return g4_openai_fail(o, "tool_choice", "a call is required, and there are no tools");
    return st;
}

static g4_status g4_request_read_tools(g4_openai *o, g4_json *doc, g4_request *r)
{
    int parallel = 1;
    g4_json *tools = g4_json_find(doc, "tools");
    g4_status st = tools != NULL && tools->kind != G4_JSON_NULL ? g4_openai_tools(o, tools) : G4_OK;
    if (st == G4_OK && tools != NULL && tools->child != NULL) r->tools = tools;
    if (st == G4_OK) st = g4_field_bool(o, doc, "parallel_tool_calls", &parallel);
    if (st == G4_OK) st = g4_request_read_choice(o, doc, r);
    if (st != G4_OK) return st;
    r->info.one_call = !parallel;
    if (r->tools == NULL) return G4_OK;
    g4_json_write(&r->tools_text, r->tools);
    if (r->tools_text.failed || r->callable_text.failed) return g4_request_no_memory(o);
    const g4_buf *callable = r->callable_text.len > 0 ? &r->callable_text : &r->tools_text;
    r->info.tools = r->tools_text.data;
    r->info.tools_len = r->tools_text.len;
    r->info.callable = callable->data;
    r->info.callable_len = callable->len;
    return G4_OK;
}

/* ---- The form of the answer ---------------------------------------------------------------------- */

static g4_status g4_request_read_format(g4_openai *o, const g4_json *doc, g4_request *r)
{
    const g4_json *format = NULL, *inner = NULL, *schema = NULL;
    const char *type = NULL;
    g4_request_info *out = &r->info;
    g4_status st = g4_field_object(o, doc, "response_format", &format);
    if (st != G4_OK || format == NULL) return st;
    memcpy(o->place, "response_format", sizeof "response_format");
    st = g4_field_text(o, format, "type", &type);
    if (type == NULL) type = "";
    if (st == G4_OK && strcmp(type, "text") != 0 && strcmp(type, "json_object") != 0 &&
        strcmp(type, "json_schema") != 0)
        st = g4_openai_fail(o, "type", "expected text, json_object or json_schema, found \"%.30s\"", type);
    if (st != G4_OK) return st;
    if (strcmp(type, "json_schema") == 0) {
        st = g4_field_object(o, format, "json_schema", &inner);
        if (st == G4_OK && inner == NULL) st = g4_openai_fail(o, "json_schema", "expected an object, found nothing");
        memcpy(o->place, "response_format.json_schema", sizeof "response_format.json_schema");
        if (st == G4_OK) st = g4_field_text(o, inner, "name", &out->schema_name);
        if (st == G4_OK) st = g4_field_bool(o, inner, "strict", &out->is_strict);
        out->format = G4_FORMAT_SCHEMA;
    } else if (strcmp(type, "json_object") == 0) {
        inner = format; /* llama.cpp's clients give a schema here */
        out->format = G4_FORMAT_JSON;
    }
    if (st == G4_OK && inner != NULL) st = g4_field_object(o, inner, "schema", &schema);
    if (st != G4_OK) return st;
    o->place[0] = '\0';
    if (out->format == G4_FORMAT_TEXT) return G4_OK;
    if (schema != NULL) out->format = G4_FORMAT_SCHEMA;
    if (schema != NULL)
        g4_json_write(&r->schema_text, schema);
    else /* any object */
        g4_buf_str(&r->schema_text, "{\"type\":\"object\"}");
    if (r->schema_text.failed) return g4_request_no_memory(o);
    out->schema = r->schema_text.data;
    out->schema_len = r->schema_text.len;
    return G4_OK;
}

/* ---- The rest ------------------------------------------------------------------------------------ */

static const g4_json *g4_last_message(const g4_request *r)
{
    const g4_json *m = r->messages->child;
    while (m->next != NULL) m = m->next;
    return m;
}

static g4_status g4_request_read_end(g4_openai *o, const g4_json *doc, g4_request *r)
{
    g4_status st = g4_field_bool(o, doc, "add_generation_prompt", &r->add_generation_prompt);
    if (st == G4_OK) st = g4_field_bool(o, doc, "continue_final_message", &r->info.continue_final);
    if (st != G4_OK || !r->info.continue_final) return st;
    const g4_json *last = g4_last_message(r), *calls = g4_json_given(last, "tool_calls");
    if (r->add_generation_prompt == 1)
        return g4_openai_fail(o, "continue_final_message", "add_generation_prompt must be false beside it");
    if (!g4_json_is_text(g4_json_get(last, "role"), "assistant") || (calls != NULL && calls->child != NULL))
        return g4_openai_fail(o, "continue_final_message", "the last message must be text of the assistant");
    return G4_OK;
}

static g4_status g4_request_read_stream(g4_openai *o, const g4_json *doc, g4_request_info *out)
{
    const g4_json *options = NULL;
    int n = 1;
    g4_status st = g4_field_text(o, doc, "model", &out->model);
    if (st == G4_OK) st = g4_field_bool(o, doc, "stream", &out->stream);
    if (st == G4_OK) st = g4_field_object(o, doc, "stream_options", &options);
    memcpy(o->place, "stream_options", sizeof "stream_options");
    if (st == G4_OK) st = g4_field_bool(o, options, "include_usage", &out->include_usage);
    o->place[0] = '\0';
    if (st == G4_OK) st = g4_field_int(o, doc, "n", 1, INT32_MAX, &n);
    if (st == G4_OK && n > 1) st = g4_openai_fail(o, "n", "expected 1, as a request has one answer here, found %d", n);
    return st;
}

/* Ids of tokens; which of them there are only a model knows. */
static g4_status g4_request_read_ids(g4_openai *o, const char *member, const g4_json *list, g4_request_prompt *out)
{
    int n = 0;
    for (const g4_json *id = list->child; id != NULL; id = id->next) n++;
    g4_token *tokens = g4_arena_alloc(o->m, (size_t)n * sizeof *tokens);
    if (tokens == NULL) return g4_request_no_memory(o);
    *out = (g4_request_prompt) { .tokens = tokens };
    for (const g4_json *id = list->child; id != NULL; id = id->next) {
        if (id->kind != G4_JSON_NUMBER || !(id->number >= 0 && id->number <= INT32_MAX) ||
            id->number != floor(id->number))
            return g4_openai_fail(o, member, "expected ids of tokens, found %.30s",
                                  id->kind == G4_JSON_NUMBER ? id->text : g4_json_kind_name(id));
        tokens[out->n_tokens++] = (g4_token)id->number;
    }
    return G4_OK;
}

/* A text, ids, or a list of either. */
static g4_status g4_request_read_prompts(g4_openai *o, const g4_json *prompt, g4_request *r)
{
    const g4_json *first = prompt->kind == G4_JSON_ARRAY ? prompt->child : NULL;
    const int is_list = first != NULL && first->kind != G4_JSON_NUMBER;
    int n = 1;
    g4_status st = G4_OK;
    if (prompt->kind == G4_JSON_ARRAY && first == NULL)
        return g4_openai_fail(o, "prompt", "expected text or ids of tokens, found an empty list");
    for (const g4_json *p = is_list ? first->next : NULL; p != NULL; p = p->next) n++;
    r->prompts = g4_alloc(r->a, (size_t)n, sizeof *r->prompts);
    if (r->prompts == NULL) return g4_request_no_memory(o);
    for (const g4_json *p = is_list ? first : prompt; p != NULL && st == G4_OK; p = is_list ? p->next : NULL) {
        g4_request_prompt *out = &r->prompts[r->info.n_prompts++];
        if (p->kind == G4_JSON_STRING)
            *out = (g4_request_prompt) { .text = p->text, .len = p->text_len };
        else if (p->kind == G4_JSON_ARRAY && p->child != NULL)
            st = g4_request_read_ids(o, "prompt", p, out);
        else
            st = g4_openai_fail(o, "prompt", "expected text or ids of tokens, found %s",
                                p->kind == G4_JSON_ARRAY ? "an empty list" : g4_json_kind_name(p));
    }
    r->info.prompts = r->prompts;
    return st;
}

/* A list of one message in place of a prompt: the user says that text; NULL: nothing. */
static g4_status g4_request_say(g4_openai *o, const g4_json *text, g4_request *r)
{
    g4_json *nodes = g4_arena_alloc(o->m, 4 * sizeof *nodes); /* a list, a message, its role, its content */
    if (nodes == NULL) return g4_request_no_memory(o);
    nodes[0] = (g4_json) { .kind = G4_JSON_ARRAY, .child = &nodes[1] };
    nodes[1] = (g4_json) { .kind = G4_JSON_OBJECT, .child = &nodes[2] };
    nodes[2] = (g4_json) {
        .kind = G4_JSON_STRING, .text = "user", .text_len = 4, .key = "role", .key_len = 4, .next = &nodes[3]
    };
    nodes[3] = (g4_json) { .kind = G4_JSON_STRING, .text = "", .key = "content", .key_len = 7 };
    r->messages = &nodes[0];
    if (text != NULL) g4_json_set(&nodes[3], text);
    return G4_OK;
}

/* A prompt is what the user says, or, where it is to be continued as it stands, the text itself, or several of them. */
static g4_status g4_request_read_prompt(g4_openai *o, const g4_json *prompt, g4_request *r)
{
    if (!r->info.is_completion && prompt->kind != G4_JSON_STRING)
        return g4_openai_fail(o, "prompt", "expected text, found %s", g4_json_kind_name(prompt));
    const g4_status st = g4_request_read_prompts(o, prompt, r);
    if (st != G4_OK) return st;
    if (r->info.n_prompts > 1 || r->prompts[0].text == NULL) return g4_request_say(o, NULL, r);
    r->info.prompt = r->prompts[0].text;
    r->info.prompt_len = r->prompts[0].len;
    return g4_request_say(o, prompt->kind == G4_JSON_STRING ? prompt : prompt->child, r);
}

/* Text that the template trims away. */
static int g4_text_is_blank(const g4_json *text)
{
    const char *s = text != NULL ? text->text : "";
    size_t n = text != NULL ? text->text_len : 0;
    g4_py_strip(&s, &n);
    return n == 0;
}

/* Does a message say and show nothing? */
static int g4_message_is_empty(const g4_json *message)
{
    const g4_json *content = g4_json_given(message, "content");
    if (content == NULL || content->kind == G4_JSON_STRING) return g4_text_is_blank(content);
    for (const g4_json *part = content->child; part != NULL; part = part->next)
        if (!g4_json_is_text(g4_json_get(part, "type"), "text") || !g4_text_is_blank(g4_json_get(part, "text")))
            return 0;
    return 1;
}

static g4_status g4_request_read_messages(g4_openai *o, g4_json *messages, g4_request *r)
{
    int n = 0;
    r->messages = messages;
    if (g4_json_is(messages, G4_JSON_ARRAY) && messages->child == NULL)
        return g4_openai_fail(o, "messages", "expected at least one message, found none");
    const g4_status st = g4_openai_messages(o, messages);
    const g4_json *last = st == G4_OK ? g4_last_message(r) : NULL;
    if (!g4_json_is_text(g4_json_get(last, "role"), "user") || !g4_message_is_empty(last)) return st;
    for (const g4_json *message = messages->child; message != last; message = message->next) n++;
    snprintf(o->place, sizeof o->place, "messages[%d]", n);
    return g4_openai_fail(o, "content", "the user says and shows nothing: there is nothing to answer");
}

/* What is to be answered: the messages, or a prompt in place of them. */
static g4_status g4_request_read_content(g4_openai *o, g4_json *messages, const g4_json *doc, g4_request *r)
{
    const g4_json *prompt = g4_json_given(doc, "prompt");
    const char *suffix = NULL;
    if (prompt == NULL) return g4_request_read_messages(o, messages, r);
    if (g4_json_given(doc, "messages") != NULL)
        return g4_openai_fail(o, "prompt", "expected messages or a prompt, found both");
    g4_status st = g4_field_bool(o, doc, "echo", &r->info.echo);
    if (st == G4_OK) st = g4_field_text(o, doc, "suffix", &suffix);
    if (st == G4_OK && r->info.echo && (!r->info.is_completion || r->is_line))
        st = g4_openai_fail(o, "echo", "expected false: the prompt is not repeated");
    if (st == G4_OK && suffix != NULL && suffix[0] != '\0')
        st = g4_openai_fail(o, "suffix", "expected none: text is continued at its end");
    return st == G4_OK ? g4_request_read_prompt(o, prompt, r) : st;
}

/* How tokens are to be told, and of what: a text, which vLLM calls prompt and llama.cpp content, or the ids. */
static g4_status g4_request_read_tokens(g4_openai *o, const g4_json *doc, g4_request *r)
{
    static const char *const members[] = { "prompt", "content", "tokens" };
    g4_request_info *info = &r->info;
    const g4_json *found = NULL;
    const char *name = NULL;
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        const g4_json *v = g4_json_given(doc, members[i]);
        if (v == NULL) continue;
        if (found != NULL) return g4_openai_fail(o, members[i], "expected none beside %s", name);
        found = v;
        name = members[i];
    }
    if (found == NULL) return g4_openai_fail(o, "prompt", "expected prompt, content, tokens or messages, found none");
    info->add_special = strcmp(name, "prompt") == 0;
    g4_status st = g4_field_bool(o, doc, "add_special_tokens", &info->add_special);
    if (st == G4_OK) st = g4_field_bool(o, doc, "add_special", &info->add_special);
    if (st != G4_OK) return st;
    r->prompts = g4_alloc(r->a, 1, sizeof *r->prompts);
    if (r->prompts == NULL) return g4_request_no_memory(o);
    info->prompts = r->prompts;
    info->n_prompts = info->is_completion = 1;
    st = g4_request_say(o, NULL, r);
    if (st != G4_OK) return st;
    if (strcmp(name, "tokens") == 0)
        return found->kind == G4_JSON_ARRAY
                   ? g4_request_read_ids(o, name, found, r->prompts)
                   : g4_openai_fail(o, name, "expected a list of ids, found %s", g4_json_kind_name(found));
    if (found->kind != G4_JSON_STRING)
        return g4_openai_fail(o, name, "expected text, found %s", g4_json_kind_name(found));
    *r->prompts = (g4_request_prompt) { .text = found->text, .len = found->text_len };
    return G4_OK;
}

static g4_status g4_request_read_document(g4_openai *o, g4_json *doc, g4_request *r)
{
    static const g4_json nothing = { .kind = G4_JSON_OBJECT };
    g4_json bare = nothing;
    if (doc->kind != G4_JSON_ARRAY && doc->kind != G4_JSON_OBJECT)
        return g4_openai_fail(o, NULL, "expected an object with messages, or a list of messages, found %s",
                              g4_json_kind_name(doc));
    g4_json *own = doc->kind == G4_JSON_ARRAY ? &bare : doc;
    g4_status st = G4_OK;
    if (r->info.dialect == G4_DIALECT_TOKENS) {
        r->info.parse_special = 1;
        st = g4_field_bool(o, own, "parse_special", &r->info.parse_special);
        if (st == G4_OK) st = g4_field_bool(o, own, "with_pieces", &r->info.with_pieces);
        if (st == G4_OK) st = g4_field_bool(o, own, "return_token_strs", &r->info.with_strings);
        if (st == G4_OK && own == doc && g4_json_given(doc, "messages") == NULL)
            return g4_request_read_tokens(o, doc, r);
    }
    if (st == G4_OK) st = g4_request_read_stream(o, own, &r->info);
    if (st == G4_OK) st = g4_request_read_sampling(o, own, &r->info);
    if (st == G4_OK) st = g4_request_read_stop(o, own, r);
    if (st == G4_OK) st = g4_request_read_bias(o, own, r);
    if (st == G4_OK) st = g4_request_read_logprobs(o, own, &r->info);
    if (st == G4_OK) st = g4_request_read_thinking(o, own, r);
    if (st == G4_OK) st = g4_request_read_tools(o, own, r);
    if (st == G4_OK) st = g4_request_read_format(o, own, r);
    if (st == G4_OK) st = g4_request_read_content(o, own == doc ? g4_json_find(doc, "messages") : doc, own, r);
    return st == G4_OK ? g4_request_read_end(o, own, r) : st;
}

/* A request in OpenAI's form. In that dialect a line of a batch says itself what it holds. */
static g4_status g4_request_unwrap(g4_openai *o, g4_dialect dialect, g4_json **doc, g4_request *r)
{
    g4_request_info *info = &r->info;
    const g4_json *line = *doc;
    info->dialect = dialect;
    const g4_status st = dialect == G4_DIALECT_OPENAI ? g4_line_unwrap(o, doc, info) : G4_OK;
    r->is_line = *doc != line;
    if (st != G4_OK) return st;
    info->is_completion = info->dialect == G4_DIALECT_COMPLETIONS;
    switch (info->dialect) {
    case G4_DIALECT_OPENAI:
    case G4_DIALECT_TOKENS: return G4_OK;
    case G4_DIALECT_ANTHROPIC: return g4_anthropic_read(o, doc, info);
    case G4_DIALECT_RESPONSES: return g4_responses_read(o, doc, info);
    case G4_DIALECT_COMPLETIONS:
        if (g4_json_is(*doc, G4_JSON_OBJECT) && g4_json_given(*doc, "prompt") != NULL) return G4_OK;
        return g4_openai_fail(o, "prompt", "expected by /v1/completions, found nothing");
    }
    return g4_fail(o->err, G4_ERR_ARGUMENT, "dialect: expected 0 to %d, found %d", G4_DIALECT_TOKENS, (int)dialect);
}

g4_status g4_request_read(g4_request **out, const char *json, size_t len, const g4_allocator *a, g4_fault *fault,
                          g4_error *err)
{
    return g4_request_read_as(out, G4_DIALECT_OPENAI, json, len, a, fault, err);
}

g4_status g4_request_read_as(g4_request **out, g4_dialect dialect, const char *json, size_t len, const g4_allocator *a,
                             g4_fault *fault, g4_error *err)
{
    return g4_request_read_until(out, dialect, json, len, NULL, a, fault, err);
}

g4_status g4_request_read_until(g4_request **out, g4_dialect dialect, const char *json, size_t len,
                                const g4_limits *limits, const g4_allocator *a, g4_fault *fault, g4_error *err)
{
    g4_json *doc;
    g4_halt halt;
    if (fault != NULL) *fault = (g4_fault) { 0 };
    if (out == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (json == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "json is NULL");
    g4_request *r = g4_alloc(a, 1, sizeof *r);
    if (r == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for a request");
    r->a = r->arena.a = r->tools_text.a = r->callable_text.a = r->schema_text.a = a;
    r->info = (g4_request_info) { .temperature = (double)NAN,
                                  .top_p = (double)NAN,
                                  .min_p = (double)NAN,
                                  .repeat_penalty = (double)NAN,
                                  .presence_penalty = (double)NAN,
                                  .frequency_penalty = (double)NAN,
                                  .top_k = -1,
                                  .thinking = -1 };
    r->preserve_thinking = r->add_generation_prompt = -1;
    g4_halt_open(&halt);
    g4_halt_add(&halt, limits);
    g4_openai o = { .m = &r->arena, .asker = { .halt = &halt }, .fault = fault, .err = err };
    g4_status st = g4_json_parse_in(&doc, &r->arena, json, len, NULL, &halt, err);
    if (st == G4_OK) st = g4_request_unwrap(&o, dialect, &doc, r);
    if (st == G4_OK) st = g4_request_read_document(&o, doc, r);
    r->origins = o.origins;
    if (st == G4_OK)
        *out = r;
    else
        g4_request_close(r);
    return st;
}

void g4_request_close(g4_request *r)
{
    if (r == NULL) return;
    const g4_allocator *a = r->a;
    g4_free(a, r->stop);
    g4_free(a, r->bias);
    g4_free(a, r->prompts);
    g4_buf_free(&r->tools_text);
    g4_buf_free(&r->callable_text);
    g4_buf_free(&r->schema_text);
    g4_arena_free(&r->arena);
    g4_free(a, r);
}

const g4_request_info *g4_request_get(const g4_request *r) { return r != NULL ? &r->info : NULL; }

void g4_request_sampling(const g4_request *r, g4_sampling *sampling)
{
    if (r == NULL || sampling == NULL) return;
    const g4_request_info *i = &r->info;
    if (!isnan(i->temperature)) sampling->temperature = (float)i->temperature;
    if (!isnan(i->top_p)) sampling->top_p = (float)i->top_p;
    if (!isnan(i->min_p)) sampling->min_p = (float)i->min_p;
    if (!isnan(i->repeat_penalty)) sampling->repeat_penalty = (float)i->repeat_penalty;
    if (!isnan(i->presence_penalty)) sampling->presence_penalty = (float)i->presence_penalty;
    if (!isnan(i->frequency_penalty)) sampling->frequency_penalty = (float)i->frequency_penalty;
    if (i->top_k >= 0) sampling->top_k = i->top_k;
    if (i->has_seed) sampling->seed = i->seed;
    if (i->n_bias > 0) {
        sampling->bias = i->bias;
        sampling->n_bias = i->n_bias;
    }
}

void g4_request_render(const g4_request *r, g4_render_input *in)
{
    in->messages = r->messages;
    if (r->tools != NULL) in->tools = r->tools;
    if (r->info.thinking >= 0) in->thinking = r->info.thinking;
    if (r->preserve_thinking >= 0) in->preserve_thinking = r->preserve_thinking;
    in->continue_final = r->info.continue_final;
    if (in->continue_final)
        in->add_generation_prompt = 0;
    else if (r->add_generation_prompt >= 0)
        in->add_generation_prompt = r->add_generation_prompt;
    in->is_resolved = 1;
    in->origins = r->origins;
}
