/* lines.c - lines of batch files: which request a line holds, and whether a line of answers is one that succeeded. A
 * line is {"custom_id", "method", "url", "body"}, as OpenAI's Batch API has it, {"custom_id", "params"}, as Anthropic's
 * does, or a body alone. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <string.h>

/* ---- Requests ------------------------------------------------------------------------------------ */

static const struct {
    const char *url, *needs; /* a member of its body */
    g4_dialect dialect;
} g4_line_urls[] = { { "/v1/chat/completions", "messages", G4_DIALECT_OPENAI },
                     { "/v1/completions", "prompt", G4_DIALECT_COMPLETIONS },
                     { "/v1/messages", "messages", G4_DIALECT_ANTHROPIC },
                     { "/v1/responses", "input", G4_DIALECT_RESPONSES } };
enum { G4_N_LINE_URLS = sizeof g4_line_urls / sizeof g4_line_urls[0] };

/* Is the address this path, or of a server with this path? */
static int g4_line_is_url(const g4_json *url, const char *path)
{
    const size_t n = strlen(path);
    if (!g4_json_is(url, G4_JSON_STRING) || url->text_len < n || memcmp(url->text + url->text_len - n, path, n) != 0)
        return 0;
    return url->text_len == n || strncmp(url->text, "https://", 8) == 0 || strncmp(url->text, "http://", 7) == 0;
}

/* Where the line would be sent: which of the addresses; -1 where it does not say. */
static g4_status g4_line_read_url(g4_openai *o, const g4_json *line, int *which)
{
    const g4_json *method = g4_json_given(line, "method"), *url = g4_json_given(line, "url");
    *which = -1;
    if (method != NULL && !g4_json_is_text(method, "POST"))
        return g4_openai_fail(o, "method", "expected \"POST\", found %.40s",
                              method->kind == G4_JSON_STRING ? method->text : g4_json_kind_name(method));
    for (int i = 0; i < G4_N_LINE_URLS; i++)
        if (g4_line_is_url(url, g4_line_urls[i].url)) *which = i;
    if (url == NULL || *which >= 0) return G4_OK;
    return g4_openai_fail(o, "url", "expected %s, %s, %s or %s, found %.60s", g4_line_urls[0].url, g4_line_urls[1].url,
                          g4_line_urls[2].url, g4_line_urls[3].url,
                          url->kind == G4_JSON_STRING ? url->text : g4_json_kind_name(url));
}

/* What the line is called; *id is NULL where it is not. Some clients count. */
static g4_status g4_line_read_id(g4_openai *o, const g4_json *line, const char *member, const char **id)
{
    const g4_json *v = g4_json_given(line, member);
    *id = NULL;
    if (v == NULL) return G4_OK;
    if (v->kind != G4_JSON_STRING && v->kind != G4_JSON_NUMBER)
        return g4_openai_fail(o, member, "expected text, found %s", g4_json_kind_name(v));
    if (strlen(v->text) != v->text_len) return g4_openai_fail(o, member, "expected text without a NUL");
    *id = v->text;
    return G4_OK;
}

g4_status g4_line_unwrap(g4_openai *o, g4_json **line, g4_request_info *info)
{
    int which;
    g4_status st = g4_line_read_id(o, *line, "custom_id", &info->custom_id);
    if (st == G4_OK) st = g4_line_read_url(o, *line, &which);
    if (st != G4_OK) return st;
    const int is_params =
        which < 0 && info->custom_id != NULL && g4_json_is(g4_json_find(*line, "params"), G4_JSON_OBJECT);
    g4_json *body = g4_json_find(*line, is_params ? "params" : "body");
    if (is_params) info->dialect = G4_DIALECT_ANTHROPIC;
    if (which >= 0) info->dialect = g4_line_urls[which].dialect;
    if (body == NULL && which < 0) return G4_OK;
    if (!g4_json_is(body, G4_JSON_OBJECT))
        return g4_openai_fail(o, "body", "expected an object, found %s", g4_json_kind_name(body));
    *line = body;
    if (which < 0 || g4_json_given(body, g4_line_urls[which].needs) != NULL) return G4_OK;
    return g4_openai_fail(o, g4_line_urls[which].needs, "expected by %s, found nothing", g4_line_urls[which].url);
}

/* ---- Names and outcomes -------------------------------------------------------------------------- */

static int g4_line_succeeded(const g4_json *line)
{
    const g4_json *response = g4_json_given(line, "response"), *code = g4_json_get(response, "status_code");
    return g4_json_is(code, G4_JSON_NUMBER) && code->number == 200 && g4_json_given(line, "error") == NULL &&
           g4_json_given(response, "body") != NULL;
}

/* A copy of the name that the line has in that member; *out stays NULL where it has none. */
static g4_status g4_line_copy_id(g4_openai *o, const g4_json *line, const char *member, char **out)
{
    const char *id = NULL;
    const g4_status st = g4_line_read_id(o, line, member, &id);
    if (st != G4_OK || id == NULL) return st;
    *out = g4_alloc(o->m->a, strlen(id) + 1, 1);
    if (*out == NULL) return g4_fail(o->err, G4_ERR_MEMORY, "no memory for the name of a line");
    memcpy(*out, id, strlen(id) + 1);
    return G4_OK;
}

g4_status g4_batch_line_read(g4_batch_line *out, const char *json, size_t len, const g4_limits *limits,
                             const g4_allocator *a, g4_error *err)
{
    g4_halt halt;
    g4_arena arena = { .a = a };
    g4_openai o = { .m = &arena, .err = err };
    g4_json *line;
    if (out == NULL || json == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "%s is NULL", out == NULL ? "out" : "json");
    *out = (g4_batch_line) { 0 };
    g4_halt_open(&halt);
    g4_halt_add(&halt, limits);
    g4_status st = g4_json_parse_in(&line, &arena, json, len, NULL, &halt, err);
    if (st == G4_OK) st = g4_line_copy_id(&o, line, "custom_id", &out->custom_id);
    if (st == G4_OK) {
        out->is_answer = g4_json_find(line, "response") != NULL && g4_json_find(line, "error") != NULL;
        out->has_succeeded = g4_line_succeeded(line);
    }
    if (st == G4_OK && out->is_answer) st = g4_line_copy_id(&o, line, "id", &out->id);
    g4_arena_free(&arena);
    if (st != G4_OK) g4_batch_line_close(out, a);
    return st;
}

void g4_batch_line_close(g4_batch_line *line, const g4_allocator *a)
{
    if (line == NULL) return;
    g4_free(a, line->custom_id);
    g4_free(a, line->id);
    *line = (g4_batch_line) { 0 };
}
