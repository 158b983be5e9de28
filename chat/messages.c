/* messages.c - messages as plain data to the tree of JSON nodes that template.c renders, which is the one that a parsed
 * document would have. Media stay outside of it: the node of a content part remembers in `number` which of the media it
 * is (from 1; the parser leaves 0 there). */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <string.h>

g4_status g4_call_arguments(g4_arena *m, g4_json *arguments, g4_halt *halt, g4_error *err)
{
    g4_json *parsed;
    g4_error why;
    const g4_json none = { .kind = G4_JSON_NULL };
    const char *s = arguments->text;
    size_t n = arguments->text_len;
    g4_py_strip(&s, &n);
    const g4_status st = n > 0 ? g4_json_parse_in(&parsed, m, s, n, NULL, halt, &why) : G4_OK;
    if (st == G4_ERR_MEMORY || st == G4_ERR_CANCELED) return g4_fail(err, st, "%s", why.message);
    if (n == 0 || (st == G4_OK && parsed->kind == G4_JSON_NULL))
        g4_json_set(arguments, &none);
    else if (st == G4_OK && parsed->kind == G4_JSON_OBJECT)
        g4_json_set(arguments, parsed);
    return G4_OK;
}

/* ---- Building ------------------------------------------------------------------------------------ */

typedef struct { /* a list that grows at its end */
    g4_json *node, *last;
} g4_node_list;

typedef struct {
    g4_arena *m;
    const g4_message *messages;
    const g4_part **media; /* the parts that are media, so far */
    int n_media;
    int n_messages, message, part; /* message and part: where it is, for errors too; part -1: before the first */
    g4_json spare;                 /* stands in for nodes that there is no memory for, so that building can go on */
    g4_status st;
    g4_halt *halt;
    g4_error *err;
} g4_builder;

static void g4_build_fail(g4_builder *b, const char *why)
{
    if (b->st != G4_OK) return;
    b->st = b->part >= 0 ? g4_fail(b->err, G4_ERR_ARGUMENT, "messages[%d] part %d: %s", b->message, b->part, why)
                         : g4_fail(b->err, G4_ERR_ARGUMENT, "messages[%d]: %s", b->message, why);
}

static void g4_build_no_memory(g4_builder *b)
{
    if (b->st == G4_OK) b->st = g4_fail(b->err, G4_ERR_MEMORY, "no memory for a conversation");
}

/* A new last member of an object, which has few, or a root; never NULL. */
static g4_json *g4_build(g4_builder *b, g4_json *parent, const char *key, g4_json_kind kind)
{
    g4_json *v = g4_arena_alloc(b->m, sizeof *v);
    if (v == NULL) {
        g4_build_no_memory(b);
        b->spare = (g4_json) { .kind = kind };
        return &b->spare;
    }
    *v = (g4_json) { .kind = kind, .key = key, .key_len = key != NULL ? strlen(key) : 0 };
    if (parent != NULL) {
        g4_json **tail = &parent->child;
        while (*tail != NULL) tail = &(*tail)->next;
        *tail = v;
    }
    return v;
}

/* A new object at the end of a list, which may have many; the list is made where there is none yet. */
static g4_json *g4_build_item(g4_builder *b, g4_node_list *list, g4_json *parent, const char *key)
{
    if (list->node == NULL) list->node = g4_build(b, parent, key, G4_JSON_ARRAY);
    g4_json *v = g4_build(b, list->last == NULL ? list->node : NULL, NULL, G4_JSON_OBJECT);
    if (list->last != NULL && v != &b->spare) list->last->next = v;
    if (v != &b->spare) list->last = v;
    return v;
}

static void g4_build_text(g4_builder *b, g4_json *parent, const char *key, const char *s, size_t n)
{
    g4_json *v = g4_build(b, parent, key, G4_JSON_STRING);
    v->text = s;
    v->text_len = n;
}

static const char *g4_part_text(const g4_part *p) { return p->text == NULL ? "" : p->text; }

/* Are the parts of the message there, and their texts? */
static int g4_build_check_parts(g4_builder *b, const g4_message *m)
{
    if (m->n_parts < 0 || (m->n_parts > 0 && m->parts == NULL)) g4_build_fail(b, "parts are missing");
    for (int i = 0; m->parts != NULL && i < m->n_parts && b->st == G4_OK; i++)
        if (m->parts[i].text == NULL && m->parts[i].text_len > 0)
            g4_build_fail(b, "text is NULL and text_len is not 0");
    return b->st == G4_OK;
}

static void g4_build_call(g4_builder *b, g4_json *call, const g4_part *p)
{
    if (p->id != NULL) g4_build_text(b, call, "id", p->id, strlen(p->id));
    g4_json *f = g4_build(b, call, "function", G4_JSON_OBJECT);
    if (p->name == NULL) {
        g4_build_fail(b, "a tool call needs a name");
        return;
    }
    g4_build_text(b, f, "name", p->name, strlen(p->name));
    g4_json *arguments = g4_build(b, f, "arguments", G4_JSON_STRING);
    arguments->text = g4_part_text(p);
    arguments->text_len = g4_part_len(p);
    if (b->st == G4_OK) b->st = g4_call_arguments(b->m, arguments, b->halt, b->err);
}

typedef struct { /* the calls of a model message, while its results are read */
    g4_call_index index;
    const g4_json *next; /* the call that a result without name and id answers */
} g4_asked;

/* The name of the call that a result answers: its own, or by id, or by order; NULL: there is none. */
static const char *g4_result_name(const g4_asked *asked, const g4_part *p)
{
    if (p->name != NULL) return p->name;
    const g4_json *call = asked->next;
    if (p->id != NULL) {
        const g4_json id = { .kind = G4_JSON_STRING, .text = p->id, .text_len = strlen(p->id) };
        call = g4_call_index_take(&asked->index, &id);
    }
    return call != NULL ? g4_json_get(g4_json_get(call, "function"), "name")->text : NULL;
}

/* One result in the model message's tool_responses: an object as an object, anything else as text. */
static void g4_build_result(g4_builder *b, g4_json *result, const char *name, const g4_part *p)
{
    g4_json *parsed = NULL;
    g4_build_text(b, result, "name", name, strlen(name));
    const char *text = g4_part_text(p), *s = text;
    size_t n = g4_part_len(p);
    g4_py_strip(&s, &n);
    if (n > 0 && s[0] == '{') { /* text that only looks like an object stays text */
        const g4_status st = g4_json_parse_in(&parsed, b->m, text, g4_part_len(p), NULL, b->halt, b->err);
        if (st == G4_ERR_MEMORY || st == G4_ERR_CANCELED) b->st = st;
    }
    if (g4_json_is(parsed, G4_JSON_OBJECT))
        g4_build(b, result, "response", G4_JSON_OBJECT)->child = parsed->child;
    else
        g4_build_text(b, result, "response", text, g4_part_len(p));
}

/* The results of the tool message that the builder stands at, into the model message that asked for them. */
static void g4_build_results(g4_builder *b, g4_node_list *responses, g4_json *message, g4_asked *asked)
{
    const g4_message *m = &b->messages[b->message];
    b->part = -1;
    if (!g4_build_check_parts(b, m)) return;
    for (b->part = 0; b->part < m->n_parts && b->st == G4_OK; b->part++) {
        const g4_part *p = &m->parts[b->part];
        if (p->kind != G4_PART_TOOL_RESULT) {
            g4_build_fail(b, "a tool message holds tool results only");
            return;
        }
        const char *name = g4_result_name(asked, p);
        if (asked->next != NULL) asked->next = asked->next->next;
        if (name == NULL) {
            g4_build_fail(
                b,
                "this tool result answers no call: give its name, or the id of a call of the model message before it");
            return;
        }
        g4_build_result(b, g4_build_item(b, responses, message, "tool_responses"), name, p);
    }
}

static void g4_build_medium(g4_builder *b, g4_json *item, const g4_part *p)
{
    static const char *const types[] = { "image", "audio", "video" };
    const char *type = types[p->kind - G4_PART_IMAGE];
    if (p->kind == G4_PART_IMAGE ? p->image == NULL : p->kind == G4_PART_AUDIO ? p->audio == NULL : p->video == NULL)
        g4_build_fail(b, "a media part without its data");
    g4_build_text(b, item, "type", type, strlen(type));
    b->media[b->n_media++] = p;
    item->number = b->n_media;
}

typedef struct { /* a message that is being built; its lists are NULL until they have an element */
    g4_json *node;
    g4_node_list content, calls, responses;
    g4_buf thought;
} g4_message_node;

static g4_json *g4_build_content(g4_builder *b, g4_message_node *m)
{
    return g4_build_item(b, &m->content, m->node, "content");
}

static void g4_build_part(g4_builder *b, g4_message_node *m, const g4_part *p)
{
    g4_json *item;
    if (b->st == G4_OK) b->st = g4_halt_check(b->halt, b->err);
    switch (p->kind) {
    case G4_PART_TEXT:
        item = g4_build_content(b, m);
        g4_build_text(b, item, "type", "text", 4);
        g4_build_text(b, item, "text", g4_part_text(p), g4_part_len(p));
        break;
    case G4_PART_IMAGE:
    case G4_PART_AUDIO:
    case G4_PART_VIDEO: g4_build_medium(b, g4_build_content(b, m), p); break;
    case G4_PART_THOUGHT: g4_buf_add(&m->thought, g4_part_text(p), g4_part_len(p)); break;
    case G4_PART_TOOL_CALL: /* an incomplete one the model never said: it must not read that it did */
        if (!p->incomplete) g4_build_call(b, g4_build_item(b, &m->calls, m->node, "tool_calls"), p);
        break;
    case G4_PART_TOOL_RESULT: g4_build_fail(b, "a tool result belongs in a tool message right after the calls"); break;
    default: g4_build_fail(b, "no such part kind");
    }
}

/* A content that is one text becomes a string: the template adds a space after each part of a system message. */
static void g4_build_single_text(g4_json *content)
{
    const g4_json *text = g4_json_get(content->child, "text");
    content->kind = G4_JSON_STRING;
    if (text != NULL) {
        content->text = text->text;
        content->text_len = text->text_len;
    }
    content->child = NULL;
}

static void g4_build_thought(g4_builder *b, g4_json *message, const g4_buf *thought)
{
    char *s = thought->len > 0 ? g4_arena_alloc(b->m, thought->len + 1) : NULL;
    if (thought->failed || (s == NULL && thought->len > 0)) {
        g4_build_no_memory(b);
    } else if (s != NULL) {
        memcpy(s, thought->data, thought->len + 1);
        g4_build_text(b, message, "reasoning", s, thought->len);
    }
}

/* The tool messages behind a message with calls are taken into it. */
static void g4_build_answers(g4_builder *b, g4_message_node *v)
{
    g4_asked asked = { .next = v->calls.node->child };
    if (!g4_call_index_open(&asked.index, b->m->a, v->calls.node, b->halt) && b->st == G4_OK)
        b->st = g4_fail_short(b->halt, b->err, "no memory for a conversation");
    while (b->st == G4_OK && b->message + 1 < b->n_messages && b->messages[b->message + 1].role == G4_ROLE_TOOL) {
        b->message++;
        g4_build_results(b, &v->responses, v->node, &asked);
    }
    g4_call_index_close(&asked.index);
}

/* The message that the builder stands at. */
static void g4_build_message(g4_builder *b, g4_node_list *list)
{
    static const char *const roles[] = { "system", "developer", "user", "assistant", "tool" };
    const g4_message *m = &b->messages[b->message];
    const char *role = m->role == G4_ROLE_OTHER ? m->role_name : (unsigned)m->role < 5 ? roles[m->role] : NULL;
    b->part = -1;
    if (role == NULL) {
        g4_build_fail(b, "no such role");
        return;
    }
    if (!g4_build_check_parts(b, m)) return;
    g4_message_node v = { .node = g4_build_item(b, list, NULL, NULL), .thought = { .a = b->m->a } };
    g4_build_text(b, v.node, "role", role, strlen(role));
    for (b->part = 0; b->part < m->n_parts && b->st == G4_OK; b->part++) g4_build_part(b, &v, &m->parts[b->part]);
    if (v.content.node != NULL && m->n_parts == 1 && m->parts[0].kind == G4_PART_TEXT)
        g4_build_single_text(v.content.node);
    if (b->st == G4_OK) g4_build_thought(b, v.node, &v.thought);
    g4_buf_free(&v.thought);
    if (b->st == G4_OK && v.calls.node != NULL) g4_build_answers(b, &v);
}

g4_status g4_messages_build(g4_json **list, const g4_part **media, g4_arena *m, const g4_message *messages, int n,
                            g4_halt *halt, g4_error *err)
{
    g4_builder b = {
        .m = m, .messages = messages, .media = media, .n_messages = n, .part = -1, .halt = halt, .err = err
    };
    g4_node_list all = { .node = g4_build(&b, NULL, NULL, G4_JSON_ARRAY) };
    for (; b.message < n && b.st == G4_OK; b.message++) g4_build_message(&b, &all);
    *list = b.st == G4_OK ? all.node : NULL;
    return b.st;
}
