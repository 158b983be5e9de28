/* template.c - prompts: messages and tools, as JSON trees, to the text that the official Jinja template makes of them,
 * byte for byte, with the places of the control tokens in it. Those marks are what keeps user text harmless: the
 * stretches between them are tokenised as plain text, whatever they say. A function that is a macro of the template
 * bears its name (format_argument, format_parameters, format_function_declaration, strip_thinking,
 * format_tool_response_block). What would make the template fail (an undefined value joined to text, a missing method)
 * is an error that names the message. There are three templates: 31b-2026-07, the e2b-2026-07 that differs from it in
 * the empty thought at the end, and the older 31b-2026-04. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    const g4_allocator *a;
    const g4_render_input *in;
    g4_rendered *out;
    int old;           /* the template of 2026-04 */
    int message, tool; /* what is being rendered, for errors; -1: none */
    const char *role;  /* of that message; may be NULL */
    g4_status st;      /* the first failure; everything after it is for nothing, and short */
    g4_asker asker;
    g4_error *err;
} g4_renderer;

static const g4_json g4_name_unknown = { .kind = G4_JSON_STRING, .text = "unknown", .text_len = 7 };

void g4_rendered_free(g4_rendered *r)
{
    const g4_allocator *a = r->text.a;
    g4_buf_free(&r->text);
    g4_free(a, r->marks);
    memset(r, 0, sizeof *r);
}

/* ---- Writing ------------------------------------------------------------------------------------- */

static void g4_render_fail(g4_renderer *r, const char *why)
{
    if (r->st != G4_OK) return;
    char role[40] = "";
    if (r->role != NULL) snprintf(role, sizeof role, " (%.30s)", r->role);
    if (r->tool >= 0)
        r->st = g4_fail(r->err, G4_ERR_ARGUMENT, "tools[%d]: %s", r->tool, why);
    else if (r->message >= 0)
        r->st = g4_fail(r->err, G4_ERR_ARGUMENT, "messages[%d]%s: %s", r->message, role, why);
    else
        r->st = g4_fail(r->err, G4_ERR_ARGUMENT, "%s", why);
}

static void g4_render_no_memory(g4_renderer *r)
{
    if (r->st == G4_OK)
        r->st = g4_fail_short(r->asker.halt, r->err, "no memory for a prompt of %zu bytes", r->out->text.len);
}

/* Must the call end? */
static int g4_render_stops(g4_renderer *r)
{
    if (r->st == G4_OK && g4_ask(&r->asker)) r->st = g4_halt_check(r->asker.halt, r->err);
    return r->st != G4_OK;
}

static void g4_emit(g4_renderer *r, const char *s) { g4_buf_str(&r->out->text, s); }

/* Texts of a conversation may be very long: they are copied in pieces, between which the call can be ended. */
static void g4_render_copy(g4_renderer *r, g4_buf *to, const char *s, size_t n)
{
    size_t piece;
    if (!g4_buf_reserve(to, n)) return;
    for (; n > 0 && !g4_render_stops(r); s += piece, n -= piece) {
        piece = n < 65536 ? n : 65536;
        g4_buf_add(to, s, piece);
    }
}

static void g4_emit_bytes(g4_renderer *r, const char *s, size_t n) { g4_render_copy(r, &r->out->text, s, n); }

/* str() of a value; nothing for NULL. */
static void g4_emit_value(g4_renderer *r, const g4_json *v) { g4_py_str(&r->out->text, v, r->asker.halt); }

/* The name of a control token, and a mark on it. */
static void g4_emit_mark(g4_renderer *r, const char *name, g4_mark_kind kind, const g4_json *part)
{
    g4_rendered *out = r->out;
    if (g4_render_stops(r)) return;
    g4_mark *marks = g4_array_grow(r->a, out->marks, out->n_marks, &out->cap_marks, sizeof *marks);
    if (marks == NULL) {
        g4_render_no_memory(r);
        return;
    }
    out->marks = marks;
    marks[out->n_marks++] = (g4_mark) { out->text.len, strlen(name), kind, r->message, part };
    g4_emit(r, name);
}

static void g4_emit_control(g4_renderer *r, const char *name) { g4_emit_mark(r, name, G4_MARK_CONTROL, NULL); }

static void g4_emit_quoted(g4_renderer *r, const char *s, size_t n)
{
    g4_emit_control(r, G4_QUOTE);
    g4_emit_bytes(r, s, n);
    g4_emit_control(r, G4_QUOTE);
}

static void g4_emit_quoted_value(g4_renderer *r, const g4_json *v)
{
    g4_emit_control(r, G4_QUOTE);
    g4_emit_value(r, v);
    g4_emit_control(r, G4_QUOTE);
}

/* value | upper, between quotes. */
static void g4_emit_quoted_upper(g4_renderer *r, const g4_json *v)
{
    g4_buf s = { .a = r->a };
    g4_py_str(&s, v, r->asker.halt);
    g4_emit_control(r, G4_QUOTE);
    if (s.data != NULL) g4_py_upper(&r->out->text, s.data, s.len);
    g4_emit_control(r, G4_QUOTE);
    if (s.failed) g4_render_no_memory(r);
    g4_buf_free(&s);
}

/* text + value: the value must be a string. */
static void g4_emit_joined(g4_renderer *r, const g4_json *v, const char *what)
{
    char why[120];
    if (g4_json_is(v, G4_JSON_STRING)) {
        g4_emit_value(r, v);
        return;
    }
    snprintf(why, sizeof why, "%s must be a string", what);
    g4_render_fail(r, why);
}

/* value | trim */
static void g4_emit_trimmed(g4_renderer *r, const g4_json *v)
{
    if (!g4_json_is(v, G4_JSON_STRING)) {
        g4_emit_value(r, v); /* nothing else prints with space around it */
        return;
    }
    const char *s = v->text;
    size_t n = v->text_len;
    g4_py_strip(&s, &n);
    g4_emit_bytes(r, s, n);
}

static void g4_emit_key(g4_renderer *r, const g4_json *member)
{
    g4_buf_add(&r->out->text, member->key, member->key_len);
}

/* A comma before all but the first element of a list. */
static void g4_emit_comma(g4_renderer *r, int *is_next)
{
    if (*is_next) g4_emit(r, ",");
    *is_next = 1;
}

/* Does `value | upper` equal the name? */
static int g4_upper_is(g4_renderer *r, const g4_json *v, const char *name)
{
    if (!g4_json_is(v, G4_JSON_STRING)) return 0; /* no other value prints as one of the names asked for */
    g4_buf s = { .a = r->a };
    g4_py_upper(&s, v->text, v->text_len);
    const int same = s.data != NULL && s.len == strlen(name) && memcmp(s.data, name, s.len) == 0;
    if (s.failed) g4_render_no_memory(r);
    g4_buf_free(&s);
    return same;
}

/* map | dictsort; empty after a failure. Close it in any case. */
static void g4_render_sorted(g4_renderer *r, g4_dictsort *d, const g4_json *map)
{
    static const g4_json empty = { .kind = G4_JSON_OBJECT };
    if (!g4_dictsort_open(d, r->a, r->st == G4_OK ? map : &empty, r->asker.halt)) {
        g4_render_no_memory(r);
        d->n = 0;
    }
}

/* ---- Arguments of calls -------------------------------------------------------------------------- */

static void g4_format_argument(g4_renderer *r, const g4_json *v, int escape_keys);

/* key:value pairs of a map, sorted. */
static void g4_format_pairs(g4_renderer *r, const g4_json *map, int escape_keys)
{
    g4_dictsort d;
    int is_next = 0;
    g4_render_sorted(r, &d, map);
    for (size_t i = 0; i < d.n && !g4_render_stops(r); i++) {
        const g4_json *member = d.members[i].node;
        g4_emit_comma(r, &is_next);
        if (escape_keys)
            g4_emit_quoted(r, member->key, member->key_len);
        else
            g4_emit_key(r, member);
        g4_emit(r, ":");
        g4_format_argument(r, member, escape_keys);
    }
    g4_dictsort_close(&d);
}

static void g4_format_argument(g4_renderer *r, const g4_json *v, int escape_keys)
{
    if (g4_render_stops(r)) return;
    if (v == NULL) { /* undefined is an empty sequence to Jinja */
        g4_emit(r, "[]");
        return;
    }
    switch (v->kind) {
    case G4_JSON_NULL: g4_emit(r, r->old ? "None" : "null"); break;
    case G4_JSON_STRING: g4_emit_quoted(r, v->text, v->text_len); break;
    case G4_JSON_TRUE: g4_emit(r, "true"); break;
    case G4_JSON_FALSE: g4_emit(r, "false"); break;
    case G4_JSON_NUMBER: g4_emit_value(r, v); break;
    case G4_JSON_OBJECT:
        g4_emit(r, "{");
        g4_format_pairs(r, v, escape_keys);
        g4_emit(r, "}");
        break;
    case G4_JSON_ARRAY: {
        int is_next = 0;
        g4_emit(r, "[");
        for (const g4_json *c = v->child; c != NULL && r->st == G4_OK; c = c->next) {
            g4_emit_comma(r, &is_next);
            g4_format_argument(r, c, escape_keys);
        }
        g4_emit(r, "]");
        break;
    }
    }
}

/* ---- Declarations of tools ----------------------------------------------------------------------- */

/* required:["a","b"]: any list; of a string its characters, of a map its keys, as Python iterates them. Of what Python
 * cannot iterate, such as the true of draft 3, nothing: one keyword of one tool stops no conversation. */
static void g4_format_required(g4_renderer *r, const g4_json *v)
{
    int is_next = 0;
    g4_emit(r, "required:[");
    if (v->kind == G4_JSON_STRING) {
        for (size_t i = 0; i < v->text_len && !g4_render_stops(r);) {
            uint32_t cp;
            size_t size = g4_utf8_decode(v->text + i, v->text_len - i, &cp);
            if (size == 0) size = 1;
            g4_emit_comma(r, &is_next);
            g4_emit_quoted(r, v->text + i, size);
            i += size;
        }
    } else if (v->kind == G4_JSON_ARRAY || v->kind == G4_JSON_OBJECT) {
        for (const g4_json *c = v->child; c != NULL && !g4_render_stops(r); c = c->next) {
            g4_emit_comma(r, &is_next);
            if (v->kind == G4_JSON_OBJECT)
                g4_emit_quoted(r, c->key, c->key_len);
            else
                g4_emit_quoted_value(r, c);
        }
    }
    g4_emit(r, "]");
}

static int g4_is_standard_key(const g4_json *member)
{
    static const char *const names[] = { "description", "type", "properties", "required", "nullable", NULL };
    return g4_json_key_in(member, names);
}

static void g4_format_parameters(g4_renderer *r, const g4_json *properties, int filter_keys);

static void g4_format_items_type(g4_renderer *r, const g4_json *type)
{
    g4_emit(r, "type:");
    if (type->kind == G4_JSON_STRING) {
        g4_emit_quoted_upper(r, type);
    } else if (type->kind == G4_JSON_ARRAY || type->kind == G4_JSON_OBJECT) {
        int is_next = 0;
        g4_emit(r, "[");
        for (const g4_json *t = type->child; t != NULL && !g4_render_stops(r); t = t->next) {
            const g4_json key = { .kind = G4_JSON_STRING, .text = t->key, .text_len = t->key_len };
            g4_emit_comma(r, &is_next);
            g4_emit_quoted_upper(r, type->kind == G4_JSON_OBJECT ? &key : t);
        }
        g4_emit(r, "]");
    } else { /* 0 and false are lists of nothing to Jinja's map, and so are here other numbers and true */
        g4_emit(r, "[]");
    }
}

static void g4_format_items(g4_renderer *r, const g4_json *items)
{
    g4_dictsort d;
    int is_next = 0;
    g4_emit(r, "items:{");
    g4_render_sorted(r, &d, items);
    for (size_t i = 0; i < d.n && !g4_render_stops(r); i++) {
        const g4_json *member = d.members[i].node;
        if (member->kind == G4_JSON_NULL) continue;
        g4_emit_comma(r, &is_next);
        if (g4_json_key_is(member, "properties")) {
            g4_emit(r, "properties:{");
            if (member->kind == G4_JSON_OBJECT) g4_format_parameters(r, member, 0);
            g4_emit(r, "}");
        } else if (g4_json_key_is(member, "required")) {
            g4_format_required(r, member);
        } else if (g4_json_key_is(member, "type")) {
            g4_format_items_type(r, member);
        } else {
            g4_emit_key(r, member);
            g4_emit(r, ":");
            g4_format_argument(r, member, 1);
        }
    }
    g4_dictsort_close(&d);
    g4_emit(r, "}");
}

/* properties:{...} and required:[...] of a property that is an object; without them its other members are they. */
static void g4_format_object_property(g4_renderer *r, const g4_json *value, int *is_next)
{
    const g4_json *properties = g4_json_get(value, "properties"), *required = g4_json_get(value, "required");
    const int own = g4_json_is(properties, G4_JSON_OBJECT);
    g4_emit_comma(r, is_next);
    g4_emit(r, "properties:{");
    g4_format_parameters(r, own ? properties : value, !own);
    g4_emit(r, "}");
    if (g4_py_truthy(required)) {
        g4_emit_comma(r, is_next);
        g4_format_required(r, required);
    }
}

/* name:{...} of one property. */
static void g4_format_property(g4_renderer *r, const g4_json *value)
{
    const g4_json *type = g4_json_get(value, "type"), *description = g4_json_get(value, "description");
    const g4_json *choices = g4_json_get(value, "enum"), *items = g4_json_get(value, "items");
    int is_next = 0;
    g4_emit_key(r, value);
    g4_emit(r, ":{");
    if (g4_py_truthy(description)) {
        g4_emit_comma(r, &is_next);
        g4_emit(r, "description:");
        g4_emit_quoted_value(r, description);
    }
    if (g4_upper_is(r, type, "STRING")) {
        if (g4_py_truthy(choices)) {
            g4_emit_comma(r, &is_next);
            g4_emit(r, "enum:");
            g4_format_argument(r, choices, 1);
        }
    } else if (g4_upper_is(r, type, "ARRAY")) {
        if (g4_json_is(items, G4_JSON_OBJECT) && items->child != NULL) {
            g4_emit_comma(r, &is_next);
            g4_format_items(r, items);
        }
    }
    if (g4_py_truthy(g4_json_get(value, "nullable"))) {
        g4_emit_comma(r, &is_next);
        g4_emit(r, "nullable:true");
    }
    if (g4_upper_is(r, type, "OBJECT")) g4_format_object_property(r, value, &is_next);
    g4_emit_comma(r, &is_next);
    g4_emit(r, "type:");
    g4_emit_quoted_upper(r, type);
    g4_emit(r, "}");
}

static void g4_format_parameters(g4_renderer *r, const g4_json *properties, int filter_keys)
{
    g4_dictsort d;
    int is_next = 0;
    if (!g4_json_is(properties, G4_JSON_OBJECT)) return; /* schemas loosen them to none, and say so */
    g4_render_sorted(r, &d, properties);
    for (size_t i = 0; i < d.n && !g4_render_stops(r); i++) {
        if ((filter_keys || r->old) && g4_is_standard_key(d.members[i].node)) continue;
        g4_emit_comma(r, &is_next);
        g4_format_property(r, d.members[i].node);
    }
    g4_dictsort_close(&d);
}

/* ,parameters:{...}, which the template closes only where a type is given. */
static void g4_format_function_parameters(g4_renderer *r, const g4_json *parameters)
{
    const g4_json *properties = g4_json_get(parameters, "properties"), *required = g4_json_get(parameters, "required");
    const g4_json *type = g4_json_get(parameters, "type");
    g4_emit(r, ",parameters:{");
    if (g4_py_truthy(properties)) {
        g4_emit(r, "properties:{");
        g4_format_parameters(r, properties, 0);
        g4_emit(r, "},");
    }
    if (g4_py_truthy(required)) {
        g4_format_required(r, required);
        g4_emit(r, ",");
    }
    if (g4_py_truthy(type)) {
        g4_emit(r, "type:");
        g4_emit_quoted_upper(r, type);
        g4_emit(r, "}");
    }
}

/* ,response:{...}, which the template closes only where its type is object. */
static void g4_format_function_response(g4_renderer *r, const g4_json *response)
{
    const g4_json *description = g4_json_get(response, "description"), *type = g4_json_get(response, "type");
    g4_emit(r, ",response:{");
    if (g4_py_truthy(description)) {
        g4_emit(r, "description:");
        g4_emit_quoted_value(r, description);
        g4_emit(r, ",");
    }
    if (g4_upper_is(r, type, "OBJECT")) {
        g4_emit(r, "type:");
        g4_emit_quoted_upper(r, type);
        g4_emit(r, "}");
    }
}

static void g4_format_function_declaration(g4_renderer *r, const g4_json *tool)
{
    const g4_json *f = g4_json_get(tool, "function");
    if (!g4_json_is(f, G4_JSON_OBJECT)) {
        g4_render_fail(r, "a tool must be an object with a member \"function\"");
        return;
    }
    const g4_json *parameters = g4_json_get(f, "parameters"), *response = g4_json_get(f, "response");
    g4_emit(r, "declaration:");
    g4_emit_value(r, g4_json_get(f, "name"));
    g4_emit(r, "{description:");
    g4_emit_quoted_value(r, g4_json_get(f, "description"));
    if (g4_py_truthy(parameters)) g4_format_function_parameters(r, parameters);
    if (response != NULL) g4_format_function_response(r, response);
    g4_emit(r, "}");
}

/* ---- Contents of messages ------------------------------------------------------------------------ */

/* Where the word begins in the n bytes of s; n: nowhere. */
static size_t g4_find_word(const char *s, size_t n, const char *word)
{
    const size_t len = strlen(word);
    for (size_t i = 0; i + len <= n; i++) {
        const char *p = memchr(s + i, word[0], n - len + 1 - i);
        if (p == NULL) break;
        i = (size_t)(p - s);
        if (memcmp(p, word, len) == 0) return i;
    }
    return n;
}

/* The model's own text without the thoughts in it. */
static void g4_strip_thinking(g4_renderer *r, const g4_json *text)
{
    static const char begin[] = "<|channel>", end[] = "<channel|>";
    if (!g4_json_is(text, G4_JSON_STRING)) {
        g4_render_fail(r, "text of the model must be a string");
        return;
    }
    g4_buf kept = { .a = r->a };
    const char *p = text->text;
    size_t left = text->text_len;
    while (!g4_render_stops(r)) {
        const size_t n = g4_find_word(p, left, end);
        g4_render_copy(r, &kept, p, g4_find_word(p, n, begin));
        if (n == left) break;
        p += n + sizeof end - 1;
        left -= n + sizeof end - 1;
    }
    const char *s = kept.data == NULL ? "" : kept.data;
    size_t n = kept.len;
    g4_py_strip(&s, &n);
    g4_emit_bytes(r, s, n);
    if (kept.failed) g4_render_no_memory(r);
    g4_buf_free(&kept);
}

/* The placeholder of a content part that is a picture, sound or video; 1 if it is one. */
static int g4_emit_medium(g4_renderer *r, const g4_json *part)
{
    const g4_json *type = g4_json_get(part, "type");
    if (g4_json_is_text(type, "image") || (!r->old && g4_json_is_text(type, "image_url")))
        g4_emit_mark(r, "<|image|>", G4_MARK_IMAGE, part);
    else if (g4_json_is_text(type, "audio") || (!r->old && g4_json_is_text(type, "input_audio")))
        g4_emit_mark(r, "<|audio|>", G4_MARK_AUDIO, part);
    else if (g4_json_is_text(type, "video"))
        g4_emit_mark(r, "<|video|>", G4_MARK_VIDEO, part);
    else
        return 0;
    return 1;
}

/* Text of a message: the model's without its thoughts, anyone else's trimmed. */
static void g4_emit_text(g4_renderer *r, const g4_json *text, int is_model)
{
    if (is_model)
        g4_strip_thinking(r, text);
    else
        g4_emit_trimmed(r, text);
}

/* The parts or the text of a message; returns 1 if media were among them (2026-04 takes note of it). */
static int g4_render_content(g4_renderer *r, const g4_json *content, int is_model)
{
    int has_media = 0;
    if (g4_json_is(content, G4_JSON_STRING)) g4_emit_text(r, content, is_model);
    if (!g4_json_is(content, G4_JSON_ARRAY) && !g4_json_is(content, G4_JSON_OBJECT)) return 0;
    for (const g4_json *item = content->child; item != NULL && !g4_render_stops(r); item = item->next) {
        if (!r->old && (content->kind == G4_JSON_OBJECT || item->kind != G4_JSON_OBJECT))
            g4_render_fail(r, "a content part must be an object");
        else if (content->kind == G4_JSON_OBJECT)
            continue; /* 2026-04 sees the names only */
        else if (g4_json_is_text(g4_json_get(item, "type"), "text"))
            g4_emit_text(r, g4_json_get(item, "text"), is_model);
        else if (g4_emit_medium(r, item))
            has_media = 1;
    }
    return has_media;
}

/* ---- Calls by their ids -------------------------------------------------------------------------- */

struct g4_indexed_call {
    const g4_json *call, *id;
    int order, n_taken; /* its place in the message; of the first with its id: how many were taken */
};

/* Ids in an order of their own: by kind (none is null), then by value. Lists and objects are all alike. */
static int g4_call_compare_ids(const g4_json *a, const g4_json *b)
{
    const g4_json_kind ka = a != NULL ? a->kind : G4_JSON_NULL, kb = b != NULL ? b->kind : G4_JSON_NULL;
    if (ka != kb) return ka < kb ? -1 : 1;
    if (ka == G4_JSON_NUMBER) return (a->number > b->number) - (a->number < b->number);
    if (ka != G4_JSON_STRING) return 0;
    return g4_bytes_compare(a->text, a->text_len, b->text, b->text_len);
}

static int g4_call_compare(const void *pa, const void *pb)
{
    const g4_indexed_call *a = pa, *b = pb;
    const int c = g4_call_compare_ids(a->id, b->id);
    return c != 0 ? c : (a->order > b->order) - (a->order < b->order);
}

int g4_call_index_open(g4_call_index *x, const g4_allocator *a, const g4_json *calls, g4_halt *halt)
{
    size_t n = 0;
    *x = (g4_call_index) { .a = a };
    for (const g4_json *c = calls->child; c != NULL && n < INT32_MAX; c = c->next) n++;
    x->calls = g4_alloc(a, n > 0 ? n : 1, sizeof *x->calls);
    if (x->calls == NULL) return 0;
    for (const g4_json *c = calls->child; c != NULL && (size_t)x->n < n; c = c->next, x->n++)
        x->calls[x->n] = (g4_indexed_call) { .call = c, .id = g4_json_get(c, "id"), .order = x->n };
    return g4_sort(a, x->calls, n, sizeof *x->calls, g4_call_compare, halt);
}

void g4_call_index_close(g4_call_index *x)
{
    g4_free(x->a, x->calls);
    *x = (g4_call_index) { 0 };
}

/* The first entry whose id is not before this one, or, with `behind`, the first that is behind it. */
static int g4_call_index_find(const g4_call_index *x, const g4_json *id, int behind)
{
    int low = 0, high = x->n;
    while (low < high) {
        const int middle = low + (high - low) / 2, c = g4_call_compare_ids(x->calls[middle].id, id);
        if (c < 0 || (behind && c == 0))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const g4_json *g4_call_index_last(const g4_call_index *x, const g4_json *id)
{
    const int first = g4_call_index_find(x, id, 0);
    int i = g4_call_index_find(x, id, 1);
    while (i > first && !g4_json_equal(x->calls[i - 1].id, id)) i--; /* lists and objects stand together */
    return i > first ? x->calls[i - 1].call : NULL;
}

const g4_json *g4_call_index_take(const g4_call_index *x, const g4_json *id)
{
    const int first = g4_call_index_find(x, id, 0), end = g4_call_index_find(x, id, 1);
    if (first == end) return NULL;
    const int next = first + x->calls[first].n_taken++;
    return x->calls[next < end ? next : end - 1].call;
}

/* ---- Calls and their responses ------------------------------------------------------------------- */

static void g4_render_call(g4_renderer *r, const g4_json *call)
{
    const g4_json *f = g4_json_get(call, "function"), *arguments = g4_json_get(f, "arguments");
    if (!g4_json_is(f, G4_JSON_OBJECT)) {
        g4_render_fail(r, "a tool call must be an object with a member \"function\"");
        return;
    }
    g4_emit_control(r, "<|tool_call>");
    g4_emit(r, "call:");
    g4_emit_joined(r, g4_json_get(f, "name"), "the function name of a tool call");
    g4_emit(r, "{");
    if (g4_json_is(arguments, G4_JSON_OBJECT))
        g4_format_pairs(r, arguments, 0);
    else if ((r->old || r->in->is_resolved) && g4_json_is(arguments, G4_JSON_STRING))
        g4_emit_value(r, arguments);
    else if (!r->old && !r->in->is_resolved && !g4_json_is(arguments, G4_JSON_NULL))
        g4_render_fail(r, "arguments of a tool call must be a JSON object, not a string");
    g4_emit(r, "}");
    g4_emit_control(r, "<tool_call|>");
}

static void g4_render_calls(g4_renderer *r, const g4_json *calls)
{
    if (calls->kind != G4_JSON_ARRAY) {
        g4_render_fail(r, "tool_calls must be a list");
        return;
    }
    for (const g4_json *c = calls->child; c != NULL && !g4_render_stops(r); c = c->next) g4_render_call(r, c);
}

static void g4_format_tool_response_block(g4_renderer *r, const g4_json *name, const g4_json *response)
{
    g4_emit_control(r, "<|tool_response>");
    g4_emit(r, "response:");
    g4_emit_joined(r, name, "the name of a tool response");
    g4_emit(r, "{");
    if (g4_json_is(response, G4_JSON_OBJECT)) {
        g4_format_pairs(r, response, 0);
    } else {
        g4_emit(r, "value:");
        g4_format_argument(r, response, 0);
    }
    g4_emit(r, "}");
    g4_emit_control(r, "<tool_response|>");
}

/* The texts of a tool message's parts, joined. */
static void g4_join_parts(g4_renderer *r, const g4_json *parts, g4_buf *out)
{
    for (const g4_json *part = parts->child; part != NULL && !g4_render_stops(r); part = part->next) {
        const g4_json *text = g4_json_get(part, "text");
        if (!g4_json_is(part, G4_JSON_OBJECT))
            g4_render_fail(r, "a content part must be an object");
        else if (!g4_json_is_text(g4_json_get(part, "type"), "text"))
            continue;
        else if (g4_json_is(text, G4_JSON_STRING))
            g4_buf_add(out, text->text, text->text_len);
        else if (text != NULL)
            g4_render_fail(r, "the text of a content part must be a string");
        else
            g4_render_fail(r, "a content part of type text has no text");
    }
    if (out->failed) g4_render_no_memory(r);
}

/* The name that a tool message's response bears: that of the last call with its id, else its own. */
static const g4_json *g4_render_answered_name(const g4_renderer *r, const g4_call_index *calls, const g4_json *message)
{
    const g4_json *name = g4_json_get(message, "name");
    if (r->in->is_resolved && name != NULL) return name;
    const g4_json *call = g4_call_index_last(calls, g4_json_get(message, "tool_call_id"));
    if (call != NULL) return g4_json_get(g4_json_get(call, "function"), "name");
    return !r->old && !g4_py_truthy(name) ? &g4_name_unknown : name;
}

/* One message of role tool, rendered inside the model turn whose calls it answers. */
static void g4_render_tool_message(g4_renderer *r, const g4_call_index *calls, const g4_json *message)
{
    static const g4_json none = { .kind = G4_JSON_NULL };
    const g4_json *name = g4_render_answered_name(r, calls, message), *body = g4_json_given(message, "content");
    if (g4_json_is(body, G4_JSON_OBJECT) && body->child != NULL) {
        g4_render_fail(
            r, "content of a tool message must be a string or a list of parts (a map goes into tool_responses)");
    } else if (g4_json_is(body, G4_JSON_ARRAY) || g4_json_is(body, G4_JSON_OBJECT)) {
        g4_buf joined = { .a = r->a };
        g4_join_parts(r, body, &joined);
        const g4_json text = { .kind = G4_JSON_STRING,
                               .text = joined.data == NULL ? "" : joined.data,
                               .text_len = joined.len };
        g4_format_tool_response_block(r, name, &text);
        g4_buf_free(&joined);
        for (const g4_json *part = r->old ? NULL : body->child; part != NULL; part = part->next)
            g4_emit_medium(r, part);
    } else {
        g4_format_tool_response_block(r, name, body == NULL ? &none : body);
    }
}

/* The tool messages that follow a message with calls; returns 1 if there is one. */
static int g4_render_tool_messages(g4_renderer *r, const g4_json *calls, const g4_json *message)
{
    const int own = r->message;
    int answered = 0;
    g4_call_index index;
    if (!g4_call_index_open(&index, r->a, calls, r->asker.halt)) g4_render_no_memory(r);
    for (const g4_json *m = message->next;
         m != NULL && g4_json_is_text(g4_json_given(m, "role"), "tool") && !g4_render_stops(r); m = m->next) {
        r->message++; /* errors are about the tool's message */
        r->role = "tool";
        g4_render_tool_message(r, &index, m);
        answered = 1;
    }
    g4_call_index_close(&index);
    r->message = own;
    return answered;
}

/* The list tool_responses of a message with calls; returns 1 if it holds one. */
static int g4_render_responses(g4_renderer *r, const g4_json *responses)
{
    if (responses->kind != G4_JSON_ARRAY) {
        g4_render_fail(r, "tool_responses must be a list");
        return 0;
    }
    for (const g4_json *c = responses->child; c != NULL && !g4_render_stops(r); c = c->next) {
        const g4_json *name = g4_json_get(c, "name");
        if (name == NULL || (!r->old && !g4_py_truthy(name))) name = &g4_name_unknown;
        g4_format_tool_response_block(r, name, g4_json_get(c, "response"));
    }
    return responses->child != NULL;
}

/* ---- Turns --------------------------------------------------------------------------------------- */

typedef enum { G4_PREV_NONE, G4_PREV_OTHER, G4_PREV_CALL, G4_PREV_RESPONSE } g4_prev;

typedef struct {
    g4_prev prev;             /* ns.prev_message_type */
    const g4_json *prev_role; /* role of the last message that was not a tool's */
    int last_user;            /* index in the messages after the system's, -1: none */
} g4_render_state;

/* <|turn>role, unless the model's turn goes on. */
static void g4_render_turn_begin(g4_renderer *r, const g4_render_state *s, const g4_json *role, int is_model)
{
    if (is_model && g4_json_is_text(s->prev_role, "assistant")) return;
    g4_emit_control(r, "<|turn>");
    if (is_model)
        g4_emit(r, "model");
    else
        g4_emit_joined(r, role, "role");
    g4_emit(r, "\n");
}

/* What the model thought, where the template keeps it: behind the last message of the user, and with calls. */
static void g4_render_thought(g4_renderer *r, const g4_json *m, int is_late, int with_calls)
{
    const g4_json *thought = g4_json_given(m, "reasoning");
    if (!g4_py_truthy(thought)) thought = g4_json_given(m, "reasoning_content");
    const int is_kept = r->old ? is_late && with_calls : is_late || (r->in->preserve_thinking && with_calls);
    if (!g4_py_truthy(thought) || !is_kept) return;
    g4_emit_control(r, "<|channel>");
    g4_emit(r, "thought\n");
    g4_emit_joined(r, thought, "reasoning");
    g4_emit(r, "\n");
    g4_emit_control(r, "<channel|>");
}

/* How the turn ends: open for the host, going on in the next message, or with its marker. answered: the calls have
 * their results. */
static void g4_render_turn_end(g4_renderer *r, const g4_render_state *s, const g4_json *m, int is_model, int answered,
                               int has_content)
{
    const int with_calls = g4_py_truthy(g4_json_given(m, "tool_calls"));
    const g4_json *next = m->next;
    if (r->in->continue_final && next == NULL) return;
    while (next != NULL && g4_json_is_text(g4_json_given(next, "role"), "tool") && !g4_render_stops(r))
        next = next->next;
    const int goes_on = !r->old && is_model && next != NULL &&
                        g4_json_is_text(g4_json_given(next, "role"), "assistant") && (!with_calls || answered);
    if (s->prev == G4_PREV_CALL && !answered) {
        g4_emit_control(r, "<|tool_response>");
    } else if (!goes_on && !(answered && !has_content && (r->old || next == NULL))) {
        g4_emit_control(r, "<turn|>");
        g4_emit(r, "\n");
    }
}

static void g4_render_message(g4_renderer *r, g4_render_state *s, const g4_json *m, int index)
{
    const g4_json *role = g4_json_given(m, "role"), *calls = g4_json_given(m, "tool_calls");
    const g4_json *responses = g4_json_given(m, "tool_responses"), *content = g4_json_given(m, "content");
    const int is_model = g4_json_is_text(role, "assistant") || g4_json_is_text(role, "model");
    const int with_calls = g4_py_truthy(calls);
    s->prev = G4_PREV_NONE;
    g4_render_turn_begin(r, s, role, is_model);
    g4_render_thought(r, m, index > s->last_user, with_calls);
    if (with_calls) {
        g4_render_calls(r, calls);
        s->prev = G4_PREV_CALL;
    }
    if (r->st != G4_OK) return;
    int answered = 0;
    if (g4_py_truthy(responses))
        answered = g4_render_responses(r, responses);
    else if (with_calls)
        answered = g4_render_tool_messages(r, calls, m);
    if (r->st != G4_OK) return;
    if (answered) s->prev = G4_PREV_RESPONSE;

    const size_t start = r->out->text.len;
    if (g4_render_content(r, content, is_model) && r->old) s->prev = G4_PREV_OTHER;
    const char *text = r->out->text.data == NULL ? "" : r->out->text.data + start;
    size_t n = r->out->text.len - start;
    g4_py_strip(&text, &n);
    g4_render_turn_end(r, s, m, is_model, answered, r->old ? g4_py_truthy(content) : n > 0);
    s->prev_role = role;
}

/* The text or the parts of the system's message. */
static void g4_render_system_content(g4_renderer *r, const g4_json *content)
{
    if (!r->old && (g4_json_is(content, G4_JSON_ARRAY) || g4_json_is(content, G4_JSON_OBJECT))) {
        for (const g4_json *item = content->child; item != NULL && !g4_render_stops(r); item = item->next) {
            if (content->kind == G4_JSON_ARRAY) g4_emit_trimmed(r, g4_json_get(item, "text"));
            g4_emit(r, " ");
        }
    } else if (g4_json_is(content, G4_JSON_STRING) || r->old) {
        g4_emit_trimmed(r, content);
    }
}

static void g4_render_system(g4_renderer *r, g4_render_state *s, const g4_json *system)
{
    g4_emit_control(r, "<|turn>");
    g4_emit(r, "system\n");
    if (r->in->thinking) {
        g4_emit_control(r, "<|think|>");
        g4_emit(r, "\n");
        s->prev = G4_PREV_OTHER;
    }
    if (system != NULL) g4_render_system_content(r, g4_json_given(system, "content"));
    for (const g4_json *tool = g4_py_truthy(r->in->tools) ? r->in->tools->child : NULL; tool != NULL && r->st == G4_OK;
         tool = tool->next) {
        r->message = -1;
        r->tool++;
        g4_emit_control(r, "<|tool>");
        g4_format_function_declaration(r, tool);
        g4_emit_control(r, "<tool|>");
        s->prev = G4_PREV_OTHER;
    }
    r->tool = -1;
    g4_emit_control(r, "<turn|>");
    g4_emit(r, "\n");
}

/* The start of the model's turn; e2b-2026-07 leaves out the empty thought. */
static void g4_render_generation_prompt(g4_renderer *r, const g4_render_state *s)
{
    if (s->prev != G4_PREV_RESPONSE && s->prev != G4_PREV_CALL) {
        g4_emit_control(r, "<|turn>");
        g4_emit(r, "model\n");
        if (r->in->thinking || r->in->kind == G4_TEMPLATE_E2B_2026_07) return;
        g4_emit_control(r, "<|channel>");
        g4_emit(r, "thought\n");
        g4_emit_control(r, "<channel|>");
    } else if (s->prev == G4_PREV_RESPONSE && r->in->thinking && !r->old) {
        g4_emit_control(r, "<|channel>");
        g4_emit(r, "thought\n");
    }
}

/* ---- The whole conversation ---------------------------------------------------------------------- */

/* Messages must be objects with a role. */
static void g4_render_check(g4_renderer *r)
{
    const g4_json *m = r->in->messages->child;
    if (r->old && m == NULL) g4_render_fail(r, "messages is empty");
    for (r->message = 0; m != NULL && !g4_render_stops(r); m = m->next, r->message++) {
        const g4_json *role = g4_json_given(m, "role");
        if (m->kind != G4_JSON_OBJECT)
            g4_render_fail(r, "a message must be an object");
        else if (role == NULL)
            g4_render_fail(r, "a message must have a role");
        else if (!g4_json_is(role, G4_JSON_STRING))
            g4_render_fail(r, "role must be a string");
    }
    r->message = -1;
}

static void g4_render_conversation(g4_renderer *r)
{
    g4_render_state s = { .last_user = -1 };
    const g4_json *m = r->in->messages->child, *role = g4_json_given(m, "role");
    const int has_system = g4_json_is_text(role, "system") || g4_json_is_text(role, "developer");
    g4_emit_control(r, "<bos>");
    if (r->in->thinking || g4_py_truthy(r->in->tools) || has_system) {
        if (has_system) {
            r->message = 0;
            r->role = "system";
        }
        g4_render_system(r, &s, has_system ? m : NULL);
    }
    if (has_system) m = m->next;
    int index = 0;
    for (const g4_json *c = m; c != NULL && !g4_render_stops(r); c = c->next, index++)
        if (g4_json_is_text(g4_json_given(c, "role"), "user")) s.last_user = index;
    index = 0;
    for (; m != NULL && !g4_render_stops(r); m = m->next, index++) {
        role = g4_json_given(m, "role");
        if (g4_json_is_text(role, "tool")) continue;
        r->message = index + has_system;
        r->role = role->text;
        g4_render_message(r, &s, m, index);
    }
    if (r->in->add_generation_prompt) g4_render_generation_prompt(r, &s);
}

g4_status g4_render(g4_rendered *out, const g4_allocator *a, const g4_render_input *in, g4_halt *halt, g4_error *err)
{
    g4_renderer r = { .a = a,
                      .in = in,
                      .out = out,
                      .old = in->kind == G4_TEMPLATE_31B_2026_04,
                      .message = -1,
                      .tool = -1,
                      .asker = { .halt = halt },
                      .err = err };
    out->text.a = a;
    if (!g4_json_is(in->messages, G4_JSON_ARRAY))
        return g4_fail(err, G4_ERR_ARGUMENT, "messages must be a list of objects");
    if (g4_py_truthy(in->tools) && in->tools->kind != G4_JSON_ARRAY)
        return g4_fail(err, G4_ERR_ARGUMENT, "tools must be a list of objects");
    g4_render_check(&r);
    if (r.st == G4_OK) g4_render_conversation(&r);
    if (out->text.failed) g4_render_no_memory(&r);
    if (r.st != G4_OK) g4_rendered_free(out);
    return r.st;
}
