/* openai.c - what clients send becomes what the template takes: messages, calls and their results, tools. Clients write
 * OpenAI's format, older and newer ones of it, and that of MCP; agents send back what other engines made of a model's
 * answer. All of it is brought into one form here, in the tree of the document itself. What is understood keeps its
 * meaning, and what is not is refused by its name: a part that were dropped would be a question that the model never
 * saw. Only what a model wrote itself, the arguments of old calls, is passed on however broken it is. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Errors -------------------------------------------------------------------------------------- */

/* n bytes of a place become other words. */
static void g4_place_replace(char place[128], size_t at, size_t n, const char *with)
{
    char old[128];
    memcpy(old, place, sizeof old);
    snprintf(place, 128, "%.*s%s%s", (int)at, old, with, old + at + n);
}

/* What messages[i] is to the client. */
typedef struct {
    char text[64];
} g4_message_name;
static g4_message_name g4_openai_message_name(const g4_openai *o, long i)
{
    g4_message_name name;
    char *const from = name.text;
    enum { SIZE = sizeof name.text };
    const g4_origin *origin = o->wording != NULL && i >= 0 && i < o->n_origins ? &o->origins[i] : NULL;
    if (origin == NULL) {
        snprintf(from, SIZE, "messages[%ld]", i);
        return name;
    }
    if (origin->message < 0) /* what is no list of messages is the content itself */
        snprintf(from, SIZE, "%s", origin->message == -1 ? o->wording->system : o->wording->list);
    else if (origin->block < 0)
        snprintf(from, SIZE, "%s[%d]", o->wording->list, origin->message);
    else
        snprintf(from, SIZE, "%s[%d].content[%d]", o->wording->list, origin->message, origin->block);
    return name;
}

/* messages[i] of what was made is said as what it was made of. */
static void g4_place_of_message(const g4_openai *o, char place[128])
{
    char *end = NULL;
    const long i = strtol(place + strlen("messages["), &end, 10);
    if (i < 0 || i >= o->n_origins || *end != ']') return;
    size_t n = (size_t)(end + 1 - place);
    if (o->origins[i].message < 0 && strncmp(place + n, ".content", 8) == 0) n += 8;
    g4_place_replace(place, 0, n, g4_openai_message_name(o, i).text);
}

/* A place in the words of the client. */
static void g4_place_translate(const g4_openai *o, char place[128])
{
    static const char function[] = ".function";
    const char *inner = strncmp(place, "tools[", 6) == 0 ? strstr(place, function) : NULL;
    if (inner != NULL) g4_place_replace(place, (size_t)(inner - place), sizeof function - 1, "");
    if (strncmp(place, "messages[", 9) == 0) g4_place_of_message(o, place);
    for (const char *const(*name)[2] = o->wording->names; (*name)[0] != NULL; name++) {
        const char *ours = (*name)[0], *dot = strrchr(place, '.');
        const size_t n = strlen(ours);
        const int is_first = strncmp(place, ours, n) == 0 && (place[n] == '\0' || g4_is_one_of(".[", place[n]));
        if (!is_first && (dot == NULL || strcmp(dot + 1, ours) != 0)) continue;
        g4_place_replace(place, is_first ? 0 : (size_t)(dot + 1 - place), n, (*name)[1]);
        return;
    }
}

void g4_openai_enter(g4_openai *o, const char *fmt, ...)
{
    const size_t n = strlen(o->place);
    va_list args;
    if (n > 0 && n + 1 < sizeof o->place) memcpy(o->place + n, ".", 2);
    const size_t from = strlen(o->place);
    va_start(args, fmt);
    vsnprintf(o->place + from, sizeof o->place - from, fmt, args);
    va_end(args);
}

g4_status g4_openai_fail(g4_openai *o, const char *member, const char *fmt, ...)
{
    char why[160];
    g4_fault fault = { 0 };
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    const char *dot = o->place[0] != '\0' && member != NULL && member[0] != '[' ? "." : "";
    snprintf(fault.param, sizeof fault.param, "%s%s%s", o->place, dot, member != NULL ? member : "");
    if (o->wording != NULL) g4_place_translate(o, fault.param);
    if (o->fault != NULL) *o->fault = fault;
    return g4_fail(o->err, G4_ERR_ARGUMENT, "%s%s%s", fault.param, fault.param[0] != '\0' ? ": " : "", why);
}

static g4_status g4_openai_no_memory(g4_openai *o)
{
    return g4_fail(o->err, G4_ERR_MEMORY, "no memory for a conversation");
}

/* Text of a document for an error: its beginning, in whole characters. */
typedef struct {
    char text[44];
} g4_excerpt;
static g4_excerpt g4_openai_excerpt(const g4_json *v)
{
    g4_excerpt e;
    size_t n = v->text_len < sizeof e.text ? v->text_len : sizeof e.text - 4;
    if (n < v->text_len)
        while (n > 0 && g4_utf8_continues(v->text[n])) n--;
    snprintf(e.text, sizeof e.text, "%.*s%s", (int)n, v->text, n < v->text_len ? "..." : "");
    return e;
}

/* ---- Members of the tree ------------------------------------------------------------------------- */

/* The member of that name, or a new one at the object's front; NULL: no memory. Its value is the caller's to set. */
static g4_json *g4_openai_member(g4_openai *o, g4_json *object, const char *key)
{
    g4_json *v = g4_json_find(object, key);
    if (v != NULL) return v;
    v = g4_arena_alloc(o->m, sizeof *v);
    if (v == NULL) return NULL;
    *v = (g4_json) { .key = key, .key_len = strlen(key), .next = object->child };
    object->child = v;
    return v;
}

static void g4_openai_set_text(g4_json *v, const char *s)
{
    const g4_json text = { .kind = G4_JSON_STRING, .text = s, .text_len = strlen(s) };
    g4_json_set(v, &text);
}

/* ---- Trees that are made anew -------------------------------------------------------------------- */

g4_tree g4_tree_open(g4_openai *o, g4_json_kind kind)
{
    g4_tree t = { .node = g4_arena_alloc(o->m, sizeof *t.node) };
    o->no_memory |= t.node == NULL;
    if (t.node != NULL)
        t.node->kind = kind;
    else
        t.node = &o->lost;
    return t;
}

void g4_tree_put(g4_openai *o, g4_tree *t, const char *key, const g4_json *value)
{
    g4_json *v = o->no_memory ? NULL : g4_arena_alloc(o->m, sizeof *v);
    o->no_memory |= v == NULL;
    if (v == NULL) return;
    if (value != NULL) *v = *value;
    v->key = key;
    v->key_len = key != NULL ? strlen(key) : 0;
    v->next = NULL;
    if (t->last != NULL)
        t->last->next = v;
    else
        t->node->child = v;
    t->last = v;
}

void g4_tree_put_text(g4_openai *o, g4_tree *t, const char *key, const char *text)
{
    const g4_json v = { .kind = G4_JSON_STRING, .text = text, .text_len = strlen(text) };
    g4_tree_put(o, t, key, &v);
}

void g4_tree_keep(g4_openai *o, const g4_buf *b, g4_json *out)
{
    char *text = b->failed ? NULL : g4_arena_alloc(o->m, b->len + 1);
    *out = (g4_json) { .kind = G4_JSON_STRING, .text = "" };
    o->no_memory |= text == NULL;
    if (text == NULL) return;
    if (b->len > 0) memcpy(text, b->data, b->len);
    out->text = text;
    out->text_len = b->len;
}

void g4_tree_spell(g4_openai *o, g4_json *v)
{
    g4_buf b = { .a = o->m->a };
    g4_json text;
    g4_json_write(&b, v);
    g4_tree_keep(o, &b, &text);
    if (!o->no_memory) g4_json_set(v, &text);
    g4_buf_free(&b);
}

/* A member that must be text where it is given; *out is NULL where it is not. */
static g4_status g4_openai_text(g4_openai *o, const g4_json *object, const char *key, const g4_json **out)
{
    const g4_json *v = g4_json_given(object, key);
    *out = v;
    if (v == NULL || v->kind == G4_JSON_STRING) return G4_OK;
    return g4_openai_fail(o, key, "expected text, found %s", g4_json_kind_name(v));
}

/* A value becomes the text that it is in the document. */
static g4_status g4_openai_spell(g4_openai *o, g4_json *v)
{
    g4_buf b = { .a = o->m->a };
    g4_json_write(&b, v);
    char *text = b.failed ? NULL : g4_arena_alloc(o->m, b.len + 1);
    if (text != NULL) {
        memcpy(text, b.data, b.len + 1);
        g4_openai_set_text(v, text);
    }
    g4_buf_free(&b);
    return text != NULL ? G4_OK : g4_openai_no_memory(o);
}

/* The name that a call goes by, which some clients count; *out is NULL where there is none. */
static g4_status g4_openai_id(g4_openai *o, g4_json *object, const char *key, const g4_json **out)
{
    g4_json *v = g4_json_find(object, key);
    const g4_status st = g4_json_is(v, G4_JSON_NUMBER) ? g4_openai_spell(o, v) : G4_OK;
    return st == G4_OK ? g4_openai_text(o, object, key, out) : st;
}

/* ---- Content parts ------------------------------------------------------------------------------- */

typedef enum { G4_SAYS_TEXT, G4_SAYS_REFUSAL, G4_SAYS_IMAGE, G4_SAYS_AUDIO, G4_SAYS_VIDEO } g4_says;
static const struct {
    const char *type;
    g4_says says;
    int needs_source; /* else the host may bring the medium */
} g4_part_types[] = {
    { "text", G4_SAYS_TEXT, 0 },         { "input_text", G4_SAYS_TEXT, 0 }, { "output_text", G4_SAYS_TEXT, 0 },
    { "refusal", G4_SAYS_REFUSAL, 0 },   { "image", G4_SAYS_IMAGE, 0 },     { "image_url", G4_SAYS_IMAGE, 1 },
    { "input_image", G4_SAYS_IMAGE, 1 }, { "audio", G4_SAYS_AUDIO, 0 },     { "audio_url", G4_SAYS_AUDIO, 1 },
    { "input_audio", G4_SAYS_AUDIO, 1 }, { "video", G4_SAYS_VIDEO, 0 },     { "video_url", G4_SAYS_VIDEO, 1 },
    { "input_video", G4_SAYS_VIDEO, 1 },
};
enum { G4_N_PART_TYPES = sizeof g4_part_types / sizeof g4_part_types[0] };

typedef enum { G4_FROM_SYSTEM, G4_FROM_USER, G4_FROM_MODEL, G4_FROM_TOOL } g4_from;

static g4_status g4_openai_text_part(g4_openai *o, g4_json *part, const char *key)
{
    g4_json *text = g4_json_find(part, key);
    if (!g4_json_is(text, G4_JSON_STRING))
        return g4_openai_fail(o, key, "expected text, found %s", g4_json_kind_name(text));
    text->key = "text";
    text->key_len = 4;
    return G4_OK;
}

static g4_status g4_openai_medium_part(g4_openai *o, const g4_json *part, int index, g4_from from)
{
    int unread;
    const g4_json *type = g4_json_get(part, "type");
    if (from == G4_FROM_SYSTEM || from == G4_FROM_MODEL)
        return g4_openai_fail(o, "type", "a message of this role holds text, not \"%s\"", type->text);
    if (g4_medium_source_text(part, &unread) != NULL) return G4_OK;
    if (g4_part_types[index].needs_source)
        return g4_openai_fail(o, type->text, "expected an address or data, found none");
    if (g4_json_given(part, "source") != NULL)
        return g4_openai_fail(o, "source", "is not understood; image_url, input_audio, video_url are");
    return G4_OK;
}

/* One part takes the type that every template knows. */
static g4_status g4_openai_part(g4_openai *o, g4_json *part, g4_from from)
{
    static const char *const plain[] = { "text", "text", "image", "audio", "video" };
    g4_json *type = g4_json_find(part, "type");
    int i = 0;
    if (part->kind != G4_JSON_OBJECT)
        return g4_openai_fail(o, NULL, "expected an object with a type, found %s", g4_json_kind_name(part));
    if (!g4_json_is(type, G4_JSON_STRING))
        return g4_openai_fail(o, "type", "expected the kind of part, found %s", g4_json_kind_name(type));
    while (i < G4_N_PART_TYPES && !g4_json_is_text(type, g4_part_types[i].type)) i++;
    if (i == G4_N_PART_TYPES)
        return g4_openai_fail(o, "type",
                              "content parts of type \"%s\" are not understood; text, image_url, input_audio, "
                              "video_url are",
                              g4_openai_excerpt(type).text);
    const g4_says says = g4_part_types[i].says;
    const g4_status st = says == G4_SAYS_TEXT      ? g4_openai_text_part(o, part, "text")
                         : says == G4_SAYS_REFUSAL ? g4_openai_text_part(o, part, "refusal")
                                                   : g4_openai_medium_part(o, part, i, from);
    if (st == G4_OK) g4_openai_set_text(type, plain[says]);
    return st;
}

/* Text, null, or a list of parts. One part of text is that text: the template adds a space after each part of a system
 * message. */
static g4_status g4_openai_content(g4_openai *o, g4_json *message, int index, g4_from from)
{
    g4_json *content = g4_json_find(message, "content");
    const size_t len = strlen(o->place);
    g4_status st = G4_OK;
    int i = 0;
    if (content == NULL || content->kind == G4_JSON_NULL || content->kind == G4_JSON_STRING) return G4_OK;
    if (content->kind != G4_JSON_ARRAY)
        return g4_openai_fail(o, "content", "expected text or a list of parts, found %s", g4_json_kind_name(content));
    for (g4_json *part = content->child; part != NULL && st == G4_OK; part = part->next, i++) {
        if (g4_ask(&o->asker)) return g4_halt_check(o->asker.halt, o->err);
        snprintf(o->place, sizeof o->place, "messages[%d].content[%d]", index, i);
        st = g4_openai_part(o, part, from);
    }
    if (st != G4_OK) return st;
    o->place[len] = '\0';
    if (i == 1 && g4_json_is_text(g4_json_get(content->child, "type"), "text"))
        g4_json_set(content, g4_json_get(content->child, "text"));
    return G4_OK;
}

/* ---- Calls --------------------------------------------------------------------------------------- */

/* A call whose name and arguments stand in it and not in a member "function" gets one, which holds all of it. */
static g4_status g4_openai_unfold(g4_openai *o, g4_json *object)
{
    if (g4_json_given(object, "function") != NULL || g4_json_given(object, "name") == NULL) return G4_OK;
    const g4_json *id = g4_json_get(object, "id");
    g4_json *f = g4_arena_alloc(o->m, sizeof *f), *own = id != NULL ? g4_arena_alloc(o->m, sizeof *own) : NULL;
    if (f == NULL || (id != NULL && own == NULL)) return g4_openai_no_memory(o);
    *f = (g4_json) { .kind = G4_JSON_OBJECT, .key = "function", .key_len = 8, .child = object->child, .next = own };
    if (own != NULL) {
        *own = *id;
        own->next = NULL;
    }
    object->child = f;
    return G4_OK;
}

/* Type and function of a call or a tool. */
static g4_status g4_openai_function(g4_openai *o, g4_json *object, g4_json **function)
{
    const g4_json *type;
    if (object->kind != G4_JSON_OBJECT)
        return g4_openai_fail(o, NULL, "expected an object, found %s", g4_json_kind_name(object));
    g4_status st = g4_openai_text(o, object, "type", &type);
    if (st == G4_OK && type != NULL && !g4_json_is_text(type, "function"))
        st = g4_openai_fail(o, "type", "expected \"function\", found \"%s\"", g4_openai_excerpt(type).text);
    if (st == G4_OK) st = g4_openai_unfold(o, object);
    if (st != G4_OK) return st;
    *function = g4_json_find(object, "function");
    if (g4_json_is(*function, G4_JSON_OBJECT)) return G4_OK;
    return g4_openai_fail(o, "function", "expected an object, found %s", g4_json_kind_name(*function));
}

static g4_status g4_openai_call(g4_openai *o, g4_json *call)
{
    g4_json *f = NULL;
    const g4_json *id, *name;
    g4_status st = g4_openai_id(o, call, "id", &id);
    if (st == G4_OK) st = g4_openai_function(o, call, &f);
    if (st == G4_OK) st = g4_openai_text(o, f, "name", &name);
    if (st != G4_OK) return st;
    if (name == NULL) { /* a call that was cut before its name */
        g4_json *empty = g4_openai_member(o, f, "name");
        if (empty == NULL) return g4_openai_no_memory(o);
        g4_openai_set_text(empty, "");
    }
    g4_json *arguments = g4_json_find(f, "arguments");
    if (arguments == NULL || arguments->kind == G4_JSON_NULL || arguments->kind == G4_JSON_OBJECT) return G4_OK;
    if (arguments->kind == G4_JSON_STRING) return g4_call_arguments(o->m, arguments, o->asker.halt, o->err);
    return g4_openai_spell(o, arguments); /* no call could have had them: passed on as they are */
}

static g4_status g4_openai_calls(g4_openai *o, g4_json *message, int index)
{
    g4_json *calls = g4_json_find(message, "tool_calls");
    g4_status st = G4_OK;
    int i = 0;
    if (calls == NULL || calls->kind == G4_JSON_NULL) return G4_OK;
    if (calls->kind != G4_JSON_ARRAY)
        return g4_openai_fail(o, "tool_calls", "expected a list, found %s", g4_json_kind_name(calls));
    for (g4_json *call = calls->child; call != NULL && st == G4_OK; call = call->next, i++) {
        if (g4_ask(&o->asker)) return g4_halt_check(o->asker.halt, o->err);
        snprintf(o->place, sizeof o->place, "messages[%d].tool_calls[%d]", index, i);
        st = g4_openai_call(o, call);
    }
    if (st == G4_OK) snprintf(o->place, sizeof o->place, "messages[%d]", index);
    return st;
}

/* ---- Results of calls ---------------------------------------------------------------------------- */

/* Which calls wait for their results: those of the message `asked`, while tool messages follow it. */
typedef struct {
    const g4_json *calls; /* NULL: none wait */
    const g4_json *next;  /* the one whose turn it is where results come by order */
    int asked;
    g4_call_index index;
} g4_waiting;

static g4_status g4_openai_wait(g4_openai *o, g4_waiting *w, const g4_json *calls, int index)
{
    g4_call_index_close(&w->index);
    *w = (g4_waiting) { .calls = calls, .next = calls != NULL ? calls->child : NULL, .asked = index };
    if (calls == NULL || g4_call_index_open(&w->index, o->m->a, calls, o->asker.halt)) return G4_OK;
    return g4_fail_short(o->asker.halt, o->err, "no memory for a conversation");
}

/* The call that a result answers: by its id, else by its own name, else by order. */
static const g4_json *g4_openai_answered(const g4_waiting *w, const g4_json *id, const g4_json *name)
{
    if (id != NULL) return g4_call_index_take(&w->index, id);
    return name != NULL ? w->calls->child : w->next;
}

/* A result learns the name of its call. */
static g4_status g4_openai_result(g4_openai *o, g4_json *message, g4_waiting *w)
{
    const g4_json *id, *name;
    g4_status st = g4_openai_id(o, message, "tool_call_id", &id);
    if (st == G4_OK) st = g4_openai_text(o, message, "name", &name);
    if (st != G4_OK) return st;
    const char *what = id != NULL ? id->text : name != NULL ? name->text : "";
    if (w->calls == NULL)
        return g4_openai_fail(o, id != NULL ? "tool_call_id" : NULL,
                              "the result of call \"%.40s\" follows no message with calls", what);
    const g4_json *call = g4_openai_answered(w, id, name);
    if (call == NULL)
        return g4_openai_fail(o, id != NULL ? "tool_call_id" : NULL, "%s makes no call \"%.40s\"",
                              g4_openai_message_name(o, w->asked).text, what);
    if (w->next != NULL) w->next = w->next->next;
    if (id == NULL && name != NULL) return G4_OK;
    g4_json *own = g4_openai_member(o, message, "name");
    if (own == NULL) return g4_openai_no_memory(o);
    g4_json_set(own, g4_json_get(g4_json_get(call, "function"), "name"));
    return G4_OK;
}

/* ---- Messages ------------------------------------------------------------------------------------ */

/* What an answer has beside content and calls, as clients send it back. */
static g4_status g4_openai_model_message(g4_openai *o, g4_json *message)
{
    static const char *const gone[] = { "audio", "function_call" };
    static const char *const texts[] = { "reasoning", "reasoning_content", "refusal" };
    const g4_json *v = NULL;
    for (int i = 0; i < 3; i++) {
        const g4_status st = g4_openai_text(o, message, texts[i], &v);
        if (st != G4_OK) return st;
    }
    for (int i = 0; i < 2; i++)
        if (g4_json_given(message, gone[i]) != NULL)
            return g4_openai_fail(o, gone[i], "expected null: calls are in tool_calls, and answers are text");
    if (v == NULL || g4_json_given(message, "content") != NULL) return G4_OK;
    g4_json *content = g4_openai_member(o, message, "content"); /* a refusal is what the model said */
    if (content == NULL) return g4_openai_no_memory(o);
    g4_json_set(content, v);
    return G4_OK;
}

/* Whose message it is. A later system message stands under that name, which is the one that models know. */
static g4_status g4_openai_role(g4_openai *o, g4_json *message, int index, g4_from *from)
{
    static const struct {
        const char *name;
        g4_from from;
        const char *plain;
    } roles[] = { { "user", G4_FROM_USER, "user" },          { "assistant", G4_FROM_MODEL, "assistant" },
                  { "tool", G4_FROM_TOOL, "tool" },          { "system", G4_FROM_SYSTEM, "system" },
                  { "developer", G4_FROM_SYSTEM, "system" }, { "model", G4_FROM_MODEL, "assistant" } };
    enum { N_ROLES = sizeof roles / sizeof roles[0] };
    if (message->kind != G4_JSON_OBJECT)
        return g4_openai_fail(o, NULL, "expected an object, found %s", g4_json_kind_name(message));
    g4_json *role = g4_json_find(message, "role");
    int i = 0;
    if (!g4_json_is(role, G4_JSON_STRING))
        return g4_openai_fail(o, "role", "expected text, found %s", g4_json_kind_name(role));
    while (i < N_ROLES && !g4_json_is_text(role, roles[i].name)) i++;
    if (i == N_ROLES)
        return g4_openai_fail(o, "role", "expected system, developer, user, assistant or tool, found \"%s\"",
                              g4_openai_excerpt(role).text);
    *from = roles[i].from;
    if (index > 0 || *from != G4_FROM_SYSTEM) g4_openai_set_text(role, roles[i].plain);
    return G4_OK;
}

static g4_status g4_openai_message(g4_openai *o, g4_json *message, int index, g4_waiting *w)
{
    g4_from from = G4_FROM_USER;
    if (g4_ask(&o->asker)) return g4_halt_check(o->asker.halt, o->err);
    snprintf(o->place, sizeof o->place, "messages[%d]", index);
    g4_status st = g4_openai_role(o, message, index, &from);
    if (st == G4_OK && from == G4_FROM_MODEL) st = g4_openai_model_message(o, message);
    if (st == G4_OK) st = g4_openai_content(o, message, index, from);
    if (st == G4_OK && from == G4_FROM_MODEL) st = g4_openai_calls(o, message, index);
    if (st == G4_OK && from == G4_FROM_TOOL) return g4_openai_result(o, message, w);
    if (st != G4_OK) return st;
    const g4_json *calls = from == G4_FROM_MODEL ? g4_json_given(message, "tool_calls") : NULL;
    return g4_openai_wait(o, w, calls != NULL && calls->child != NULL ? calls : NULL, index);
}

g4_status g4_openai_messages(g4_openai *o, g4_json *messages)
{
    g4_waiting w = { 0 };
    g4_status st = G4_OK;
    int i = 0;
    if (!g4_json_is(messages, G4_JSON_ARRAY))
        return g4_openai_fail(o, "messages", "expected a list, found %s", g4_json_kind_name(messages));
    for (g4_json *message = messages->child; message != NULL && st == G4_OK; message = message->next, i++)
        st = g4_openai_message(o, message, i, &w);
    g4_call_index_close(&w.index);
    if (st == G4_OK) o->place[0] = '\0';
    return st;
}

/* ---- Tools --------------------------------------------------------------------------------------- */

/* Can a call of this name be read as what it is? The name ends at its first bracket or line feed, and is trimmed. */
static int g4_openai_is_callable(const char *s, size_t n)
{
    const char *trimmed = s;
    size_t n_trimmed = n;
    g4_py_strip(&trimmed, &n_trimmed);
    if (n_trimmed != n || s[0] == '[' || (n > 2 && memcmp(s, "```", 3) == 0)) return 0;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < ' ' || s[i] == '{' || s[i] == '(') return 0;
    return 1;
}

/* {type, function: {name, description, parameters}}, the same without the member function, or as MCP lists tools, with
 * their parameters in inputSchema. */
static g4_status g4_openai_tool(g4_openai *o, g4_json *tool)
{
    static const char *const schemas[] = { "inputSchema", "input_schema" };
    g4_json *f = NULL;
    const g4_json *text = NULL;
    g4_status st = g4_openai_function(o, tool, &f);
    if (st == G4_OK) st = g4_openai_text(o, f, "description", &text);
    if (st == G4_OK) st = g4_openai_text(o, f, "name", &text);
    if (st == G4_OK && (text == NULL || text->text_len == 0))
        st = g4_openai_fail(o, "function.name", "expected the name of a function, found %s",
                            text == NULL ? "nothing" : "empty text");
    if (st == G4_OK && !g4_openai_is_callable(text->text, text->text_len))
        st = g4_openai_fail(o, "function.name",
                            "expected a name that a call can hold, without { ( and controls, found \"%.60s\"",
                            text->text);
    for (int i = 0; i < 2 && st == G4_OK; i++) {
        g4_json *schema = g4_json_find(f, schemas[i]);
        if (schema == NULL || g4_json_given(f, "parameters") != NULL) continue;
        schema->key = "parameters";
        schema->key_len = 10;
    }
    if (st != G4_OK) return st;
    const g4_json *parameters = g4_json_given(f, "parameters");
    if (parameters == NULL || parameters->kind == G4_JSON_OBJECT) return G4_OK;
    return g4_openai_fail(o, "function.parameters", "expected an object, found %s", g4_json_kind_name(parameters));
}

g4_status g4_openai_tools(g4_openai *o, g4_json *tools)
{
    g4_status st = G4_OK;
    int i = 0;
    if (tools->kind != G4_JSON_ARRAY)
        return g4_openai_fail(o, "tools", "expected a list, found %s", g4_json_kind_name(tools));
    for (g4_json *tool = tools->child; tool != NULL && st == G4_OK; tool = tool->next, i++) {
        if (g4_ask(&o->asker)) return g4_halt_check(o->asker.halt, o->err);
        snprintf(o->place, sizeof o->place, "tools[%d]", i);
        st = g4_openai_tool(o, tool);
    }
    if (st == G4_OK) o->place[0] = '\0';
    return st;
}

g4_status g4_openai_read_tools(g4_json **tools, g4_arena *m, const char *text, size_t len, g4_halt *halt, g4_error *err)
{
    g4_openai o = { .m = m, .asker = { .halt = halt }, .err = err };
    g4_json *doc, *inner;
    *tools = NULL;
    const g4_status st = g4_json_parse_in(&doc, m, text, len > 0 ? len : strlen(text), "tools", halt, err);
    if (st != G4_OK || doc->kind == G4_JSON_NULL) return st;
    inner = g4_json_find(doc, "tools"); /* what a server of MCP answers to tools/list */
    *tools = inner != NULL ? inner : doc;
    return g4_openai_tools(&o, *tools);
}
