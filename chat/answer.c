/* answer.c - an answer as OpenAI's clients read it: one chat.completion object, or a text_completion, and the pieces of
 * both that their chunks and other dialects have too. What clients choke on is left out: a finish_reason that they do
 * not know, calls that were cut off, lists that are empty. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

int g4_answer_is_call(const g4_part *p) { return p->kind == G4_PART_TOOL_CALL && p->name != NULL && !p->incomplete; }

static int g4_answer_has_cut_call(const g4_answer *c)
{
    int n = 0;
    for (int i = 0; i < c->n_parts; i++) n += c->parts[i].kind == G4_PART_TOOL_CALL && c->parts[i].incomplete;
    return n > 0;
}

int g4_answer_has_calls(const g4_answer *c)
{
    int n = 0;
    for (int i = 0; i < c->n_parts; i++) n += g4_answer_is_call(&c->parts[i]);
    return n > 0;
}

int g4_refusal_http(const g4_refusal *why)
{
    if (why->http != 0) return why->http;
    return why->status == G4_ERR_MEMORY || why->status == G4_ERR_IO || why->status == G4_ERR_CANCELED ? 500 : 400;
}

int64_t g4_answer_created(const g4_answer *c) { return c->created != 0 ? c->created : (int64_t)time(NULL); }

/* A number with `digits` behind the point, whatever the host's locale writes between them. */
static void g4_answer_number(g4_buf *b, double x, int digits)
{
    char text[64];
    const int n = snprintf(text, sizeof text, "%.*f", digits, x);
    for (int i = 0; i < n && n < (int)sizeof text; i++)
        if (text[i] != '-' && !g4_is_digit(text[i])) text[i] = '.';
    g4_buf_str(b, text);
}

void g4_answer_head(g4_buf *b, const g4_answer *c, const char *object)
{
    const char *model = c->model != NULL ? c->model : "gemma4";
    const char *fingerprint = c->fingerprint != NULL ? c->fingerprint : "gemma4.c-" G4_VERSION;
    g4_buf_fmt(b, "{\"id\":\"%s-%016" PRIx64 "\",\"object\":\"%s\",\"created\":%" PRId64,
               c->is_completion ? "cmpl" : "chatcmpl", c->id, object, g4_answer_created(c));
    g4_buf_str(b, ",\"model\":");
    g4_json_quote(b, model, strlen(model));
    g4_buf_str(b, ",\"system_fingerprint\":");
    g4_json_quote(b, fingerprint, strlen(fingerprint));
    g4_buf_str(b, ",\"choices\":[");
}

/* ---- The message --------------------------------------------------------------------------------- */

/* The texts of all parts of that kind as one. */
static g4_buf g4_answer_gather(const g4_answer *c, g4_part_kind kind, const g4_allocator *a)
{
    g4_buf text = { .a = a };
    for (int i = 0; i < c->n_parts; i++)
        if (c->parts[i].kind == kind) g4_buf_add(&text, c->parts[i].text, g4_part_len(&c->parts[i]));
    return text;
}

/* "name": the texts of that kind; nothing when there are none. Returns whether there are. */
static int g4_answer_text(g4_buf *b, const g4_answer *c, const char *name, g4_part_kind kind)
{
    g4_buf text = g4_answer_gather(c, kind, b->a);
    const int has_text = text.len > 0;
    if (has_text) g4_buf_fmt(b, ",\"%s\":", name);
    if (has_text) g4_json_quote(b, text.data, text.len);
    if (text.failed) b->failed = 1;
    g4_buf_free(&text);
    return has_text;
}

void g4_answer_call_id(g4_buf *b, const g4_answer *c, const g4_part *call, const char *prefix, int n)
{
    if (call->id != NULL)
        g4_json_quote(b, call->id, strlen(call->id));
    else
        g4_buf_fmt(b, "\"%s_%016" PRIx64 "_%d\"", prefix, c->id, n);
}

void g4_answer_arguments(g4_buf *b, const char *text, size_t n)
{
    g4_json *v = NULL;
    if (n > 0 && g4_json_parse(&v, b->a, text, n, NULL) == G4_ERR_MEMORY) b->failed = 1;
    if (g4_json_is(v, G4_JSON_OBJECT))
        g4_json_write(b, v);
    else
        g4_buf_str(b, "{}");
    if (v != NULL) g4_json_free(b->a, v);
}

static void g4_answer_calls(g4_buf *b, const g4_answer *c)
{
    int n = 0, n_written = 0; /* calls that were cut off count: a stream has told their names before it knew */
    for (int i = 0; i < c->n_parts; i++) {
        const g4_part *p = &c->parts[i];
        n += p->kind == G4_PART_TOOL_CALL;
        if (!g4_answer_is_call(p)) continue;
        g4_buf_str(b, n_written++ == 0 ? ",\"tool_calls\":[" : ",");
        g4_buf_str(b, "{\"id\":");
        g4_answer_call_id(b, c, p, "call", n - 1);
        g4_buf_str(b, ",\"type\":\"function\",\"function\":{\"name\":");
        g4_json_quote(b, p->name, strlen(p->name));
        g4_buf_str(b, ",\"arguments\":");
        if (g4_part_len(p) > 0)
            g4_json_quote(b, p->text, g4_part_len(p));
        else
            g4_buf_str(b, "\"{}\"");
        g4_buf_str(b, "}}");
    }
    if (n_written > 0) g4_buf_str(b, "]");
}

static void g4_answer_message(g4_buf *b, const g4_answer *c)
{
    g4_buf_str(b, "\"message\":{\"role\":\"assistant\"");
    if (!g4_answer_text(b, c, "content", G4_PART_TEXT))
        g4_buf_str(b, g4_answer_has_calls(c) ? ",\"content\":null" : ",\"content\":\"\"");
    g4_answer_text(b, c, "reasoning_content", G4_PART_THOUGHT);
    g4_answer_calls(b, c);
    g4_buf_str(b, ",\"refusal\":null}");
}

/* ---- How it ended -------------------------------------------------------------------------------- */

g4_answer_end g4_answer_ending(const g4_answer *c, int has_cut_call)
{
    const g4_stop stop = c->result.stop;
    if (stop == G4_STOP_CONTEXT) return G4_ANSWER_FULL;
    if (stop == G4_STOP_MAX_TOKENS || stop == G4_STOP_CANCELED || has_cut_call ||
        (g4_answer_has_cut_call(c) && !g4_answer_has_calls(c)))
        return G4_ANSWER_CUT;
    if (g4_answer_has_calls(c)) return G4_ANSWER_CALLS;
    return stop == G4_STOP_STRING ? G4_ANSWER_STRING : G4_ANSWER_DONE;
}

void g4_answer_finish(g4_buf *b, const g4_answer *c, int has_cut_call)
{
    static const char *const reasons[] = { "stop", "stop", "tool_calls", "length", "length" };
    const g4_stop stop = c->result.stop;
    g4_buf_fmt(b, ",\"finish_reason\":\"%s\"", reasons[g4_answer_ending(c, has_cut_call)]);
    if (stop != G4_STOP_END && stop != G4_STOP_MAX_TOKENS) g4_buf_fmt(b, ",\"stop_reason\":\"%s\"", g4_stop_name(stop));
}

/* ---- Tokens and their probabilities -------------------------------------------------------------- */

/* The text of a token. Returns its bytes, which `bytes` gets. */
static size_t g4_answer_spell(g4_buf *b, const g4_engine *e, g4_token token, char bytes[256])
{
    const size_t n = g4_token_bytes(e, token, 0, bytes);
    g4_json_quote(b, bytes, n);
    return n;
}

static void g4_answer_logprob(g4_buf *b, float logprob)
{
    if (isnan(logprob)) {
        g4_buf_str(b, "null");
        return;
    }
    g4_answer_number(b, logprob > -9999.0f ? (double)logprob : -9999.0, 9); /* JSON has no infinity */
}

/* The members of one token; the object stays open. */
static void g4_answer_token(g4_buf *b, const g4_engine *e, g4_token token, float logprob)
{
    char bytes[256];
    g4_buf_str(b, "{\"token\":");
    const size_t n = g4_answer_spell(b, e, token, bytes);
    g4_buf_str(b, ",\"logprob\":");
    g4_answer_logprob(b, logprob);
    g4_buf_str(b, ",\"bytes\":[");
    for (size_t i = 0; i < n; i++) g4_buf_fmt(b, i > 0 ? ",%d" : "%d", (unsigned char)bytes[i]);
    g4_buf_str(b, "]");
}

void g4_answer_tokens(g4_buf *b, const g4_engine *e, const g4_token_logprob *tokens, int n)
{
    for (int i = 0; i < n; i++) {
        const g4_token_logprob *t = &tokens[i];
        if (i > 0) g4_buf_str(b, ",");
        g4_answer_token(b, e, t->token, t->logprob);
        g4_buf_str(b, ",\"top_logprobs\":[");
        for (int k = 0; k < t->n_top; k++) {
            if (k > 0) g4_buf_str(b, ",");
            g4_answer_token(b, e, t->top[k].token, t->top[k].logprob);
            g4_buf_str(b, "}");
        }
        g4_buf_str(b, "]}");
    }
}

void g4_answer_logprobs(g4_buf *b, const g4_engine *e, const g4_token_logprob *tokens, int n)
{
    g4_buf_str(b, "{\"content\":[");
    g4_answer_tokens(b, e, tokens, n);
    g4_buf_str(b, "],\"refusal\":null}");
}

/* ---- A text that was continued -------------------------------------------------------------------- */

void g4_answer_lists(g4_buf *b, const g4_engine *e, const g4_token_logprob *tokens, int n, size_t *offset)
{
    char bytes[256];
    g4_buf_str(b, "{\"tokens\":[");
    for (int i = 0; i < n; i++) {
        if (i > 0) g4_buf_str(b, ",");
        g4_answer_spell(b, e, tokens[i].token, bytes);
    }
    g4_buf_str(b, "],\"token_logprobs\":[");
    for (int i = 0; i < n; i++) {
        if (i > 0) g4_buf_str(b, ",");
        g4_answer_logprob(b, tokens[i].logprob);
    }
    g4_buf_str(b, "],\"top_logprobs\":[");
    for (int i = 0; i < n; i++) {
        if (i > 0) g4_buf_str(b, ",");
        if (isnan(tokens[i].logprob)) {
            g4_buf_str(b, "null");
            continue;
        }
        g4_buf_str(b, "{");
        for (int k = 0; k < tokens[i].n_top; k++) {
            if (k > 0) g4_buf_str(b, ",");
            g4_answer_spell(b, e, tokens[i].top[k].token, bytes);
            g4_buf_str(b, ":");
            g4_answer_logprob(b, tokens[i].top[k].logprob);
        }
        g4_buf_str(b, "}");
    }
    g4_buf_str(b, "],\"text_offset\":[");
    for (int i = 0; i < n; i++) {
        g4_buf_fmt(b, i > 0 ? ",%zu" : "%zu", *offset);
        *offset += g4_token_bytes(e, tokens[i].token, 0, bytes);
    }
    g4_buf_str(b, "]}");
}

static void g4_answer_completion(g4_buf *b, const g4_answer *c)
{
    g4_buf text = g4_answer_gather(c, G4_PART_TEXT, b->a);
    size_t offset = 0;
    g4_buf_str(b, "\"text\":");
    g4_json_quote(b, text.len > 0 ? text.data : "", text.len);
    if (text.failed) b->failed = 1;
    g4_buf_free(&text);
    g4_buf_str(b, ",\"logprobs\":");
    if (c->want_logprobs)
        g4_answer_lists(b, c->engine, c->logprobs, c->n_logprobs, &offset);
    else
        g4_buf_str(b, "null");
}

/* ---- Counts and times ---------------------------------------------------------------------------- */

void g4_answer_usage(g4_buf *b, const g4_answer *c)
{
    const int n = c->result.n_tokens;
    g4_buf_fmt(b, ",\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d", c->prompt_tokens, n,
               c->prompt_tokens + n);
    g4_buf_fmt(b, ",\"prompt_tokens_details\":{\"cached_tokens\":%d}", c->cached_tokens);
    g4_buf_fmt(b, ",\"completion_tokens_details\":{\"reasoning_tokens\":%d}}", c->thought_tokens);
}

/* prompt_n and the like: tokens, milliseconds, and their quotients. Seconds that are no number count as none. */
static void g4_answer_times(g4_buf *b, const char *name, int n, double seconds)
{
    const double s = isfinite(seconds) ? seconds : 0.0;
    const double values[] = { 1000 * s, n > 0 ? 1000 * s / n : 0.0, s > 0 ? n / s : 0.0 };
    static const char *const units[] = { "ms", "per_token_ms", "per_second" };
    g4_buf_fmt(b, "\"%s_n\":%d", name, n);
    for (int i = 0; i < 3; i++) {
        g4_buf_fmt(b, ",\"%s_%s\":", name, units[i]);
        g4_answer_number(b, values[i], 3);
    }
}

void g4_answer_timings(g4_buf *b, const g4_answer *c)
{
    g4_buf_fmt(b, ",\"timings\":{\"cache_n\":%d,", c->cached_tokens);
    g4_answer_times(b, "prompt", c->prompt_tokens - c->cached_tokens, c->prompt_seconds);
    g4_buf_str(b, ",");
    g4_answer_times(b, "predicted", c->result.n_tokens, c->result.seconds);
    g4_buf_str(b, "}");
}

/* ---- The object ---------------------------------------------------------------------------------- */

void g4_answer_openai(g4_buf *b, const g4_answer *c)
{
    g4_answer_head(b, c, c->is_completion ? "text_completion" : "chat.completion");
    g4_buf_fmt(b, "{\"index\":%d,", c->choice);
    if (c->is_completion) {
        g4_answer_completion(b, c);
    } else {
        g4_answer_message(b, c);
        g4_buf_str(b, ",\"logprobs\":");
        if (c->want_logprobs)
            g4_answer_logprobs(b, c->engine, c->logprobs, c->n_logprobs);
        else
            g4_buf_str(b, "null");
    }
    g4_answer_finish(b, c, 0);
    g4_buf_str(b, "}]");
    g4_answer_usage(b, c);
    g4_answer_timings(b, c);
    g4_buf_str(b, "}");
}

/* ---- Errors ---------------------------------------------------------------------------------------- */

void g4_refusal_openai(g4_buf *b, const g4_refusal *why)
{
    static const struct {
        int http;
        const char *type, *code;
    } kinds[] = { { 401, "authentication_error", "invalid_api_key" },
                  { 403, "permission_error", "forbidden" },
                  { 404, "invalid_request_error", "not_found" },
                  { 429, "rate_limit_error", "rate_limit_exceeded" },
                  { 503, "server_error", "overloaded" } };
    const int http = g4_refusal_http(why);
    const char *type = http < 500 ? "invalid_request_error" : "server_error", *code = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (kinds[i].http != http) continue;
        type = kinds[i].type;
        code = kinds[i].code;
    }
    if (why->status == G4_ERR_CONTEXT) code = "context_length_exceeded";
    const char *texts[] = { why->message != NULL ? why->message : "", type,
                            why->param != NULL && why->param[0] != '\0' ? why->param : NULL, code };
    static const char *const names[] = { "{\"error\":{\"message\":", ",\"type\":", ",\"param\":", ",\"code\":" };
    for (int i = 0; i < 4; i++) {
        g4_buf_str(b, names[i]);
        if (texts[i] != NULL)
            g4_json_quote(b, texts[i], strlen(texts[i]));
        else
            g4_buf_str(b, "null");
    }
    g4_buf_str(b, "}}");
}

/* ---- Chunks: the same as it comes ------------------------------------------------------------------ */

static void g4_chunk_begin(g4_stream *s)
{
    const g4_answer *c = &s->answer;
    g4_buf_str(&s->out, "data: ");
    g4_answer_head(&s->out, c, c->is_completion ? "text_completion" : "chat.completion.chunk");
}

static void g4_chunk_finish(g4_stream *s)
{
    if (s->include_usage) g4_buf_str(&s->out, ",\"usage\":null");
    g4_buf_str(&s->out, "}\n\n");
}

/* Behind the text or delta of a chunk: the tokens that have come since the last one. */
static void g4_chunk_logprobs(g4_stream *s)
{
    const g4_answer *c = &s->answer;
    g4_buf_str(&s->out, ",\"logprobs\":");
    if (!c->want_logprobs || s->n_tokens == 0)
        g4_buf_str(&s->out, "null");
    else if (c->is_completion)
        g4_answer_lists(&s->out, c->engine, s->tokens, s->n_tokens, &s->text_offset);
    else
        g4_answer_logprobs(&s->out, c->engine, s->tokens, s->n_tokens);
    s->n_tokens = 0;
}

static void g4_chunk_choice_begin(g4_stream *s)
{
    g4_chunk_begin(s);
    g4_buf_fmt(&s->out, "{\"index\":%d,\"%s", s->answer.choice, s->answer.is_completion ? "text\":" : "delta\":{");
}

static void g4_chunk_choice_end(g4_stream *s)
{
    if (!s->answer.is_completion) g4_buf_str(&s->out, "}");
    g4_chunk_logprobs(s);
    g4_buf_str(&s->out, ",\"finish_reason\":null}]");
    g4_chunk_finish(s);
}

static void g4_chunk_open_answer(g4_stream *s)
{
    if (s->answer.is_completion) return;
    g4_chunk_choice_begin(s);
    g4_buf_str(&s->out, "\"role\":\"assistant\",\"content\":\"\"");
    g4_chunk_choice_end(s);
}

static void g4_chunk_open_part(g4_stream *s, const g4_part *p)
{
    if (p->kind != G4_PART_TOOL_CALL) return;
    g4_chunk_choice_begin(s);
    g4_buf_fmt(&s->out, "\"tool_calls\":[{\"index\":%d,\"id\":", s->n_told_calls - 1);
    g4_answer_call_id(&s->out, &s->answer, p, "call", s->n_calls - 1);
    g4_buf_str(&s->out, ",\"type\":\"function\",\"function\":{\"name\":");
    g4_json_quote(&s->out, p->name, strlen(p->name));
    g4_buf_str(&s->out, ",\"arguments\":\"\"}}]");
    g4_chunk_choice_end(s);
}

static void g4_chunk_add(g4_stream *s, const char *text, size_t n)
{
    g4_chunk_choice_begin(s);
    if (s->part.kind == G4_PART_TOOL_CALL)
        g4_buf_fmt(&s->out, "\"tool_calls\":[{\"index\":%d,\"function\":{\"arguments\":", s->n_told_calls - 1);
    else if (!s->answer.is_completion)
        g4_buf_str(&s->out, s->part.kind == G4_PART_THOUGHT ? "\"reasoning_content\":" : "\"content\":");
    g4_json_quote(&s->out, text, n);
    if (s->part.kind == G4_PART_TOOL_CALL) g4_buf_str(&s->out, "}}]");
    g4_chunk_choice_end(s);
}

static void g4_chunk_close_part(g4_stream *s, int is_cut)
{
    (void)s;
    (void)is_cut; /* clients see it by what follows */
}

/* The reason, then the counts; the timings stand in the last chunk, as llama.cpp's do. */
static void g4_chunk_close_answer(g4_stream *s, const g4_answer *c)
{
    g4_chunk_choice_begin(s);
    g4_buf_str(&s->out, c->is_completion ? "\"\"" : "}");
    g4_chunk_logprobs(s);
    g4_answer_finish(&s->out, c, s->has_cut_call);
    g4_buf_str(&s->out, "}]");
    if (c->has_more) {
        g4_chunk_finish(s);
        return;
    }
    if (s->include_usage) {
        g4_chunk_finish(s);
        g4_chunk_begin(s);
        g4_buf_str(&s->out, "]");
        g4_answer_usage(&s->out, c);
    }
    g4_answer_timings(&s->out, c);
    g4_buf_str(&s->out, "}\n\ndata: [DONE]\n\n");
}

static void g4_chunk_refuse(g4_stream *s, const g4_refusal *why)
{
    g4_buf_str(&s->out, "data: ");
    g4_refusal_openai(&s->out, why);
    g4_buf_str(&s->out, "\n\n");
}

const g4_stream_form g4_stream_openai = { g4_chunk_open_answer, g4_chunk_open_part,    g4_chunk_add,
                                          g4_chunk_close_part,  g4_chunk_close_answer, g4_chunk_refuse };
