/* answer.c - an answer as OpenAI's clients read it: one chat.completion object, or a text_completion. What clients
 * choke on is left out: a finish_reason that they do not know, calls that were cut off, lists that are empty. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* A call that may be carried out. */
static int g4_answer_is_call(const g4_part *p)
{
    return p->kind == G4_PART_TOOL_CALL && p->name != NULL && !p->incomplete;
}

static int g4_answer_has_cut_call(const g4_answer *c)
{
    int n = 0;
    for (int i = 0; i < c->n_parts; i++) n += c->parts[i].kind == G4_PART_TOOL_CALL && c->parts[i].incomplete;
    return n > 0;
}

static int g4_answer_has_calls(const g4_answer *c)
{
    int n = 0;
    for (int i = 0; i < c->n_parts; i++) n += g4_answer_is_call(&c->parts[i]);
    return n > 0;
}

/* A number with `digits` behind the point, whatever the host's locale writes between them. */
static void g4_answer_number(g4_buf *b, double x, int digits)
{
    char text[64];
    const int n = snprintf(text, sizeof text, "%.*f", digits, x);
    for (int i = 0; i < n && n < (int)sizeof text; i++)
        if (text[i] != '-' && !g4_is_digit(text[i])) text[i] = '.';
    g4_buf_str(b, text);
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

static void g4_answer_calls(g4_buf *b, const g4_answer *c)
{
    int n = 0;
    for (int i = 0; i < c->n_parts; i++) {
        const g4_part *p = &c->parts[i];
        if (!g4_answer_is_call(p)) continue;
        g4_buf_str(b, n == 0 ? ",\"tool_calls\":[" : ",");
        g4_buf_str(b, "{\"id\":");
        if (p->id != NULL)
            g4_json_quote(b, p->id, strlen(p->id));
        else
            g4_buf_fmt(b, "\"call_%016" PRIx64 "_%d\"", c->id, n);
        g4_buf_str(b, ",\"type\":\"function\",\"function\":{\"name\":");
        g4_json_quote(b, p->name, strlen(p->name));
        g4_buf_str(b, ",\"arguments\":");
        if (g4_part_len(p) > 0)
            g4_json_quote(b, p->text, g4_part_len(p));
        else
            g4_buf_str(b, "\"{}\"");
        g4_buf_str(b, "}}");
        n++;
    }
    if (n > 0) g4_buf_str(b, "]");
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

static void g4_answer_finish(g4_buf *b, const g4_answer *c)
{
    const g4_stop stop = c->result.stop;
    const int is_cut = stop == G4_STOP_MAX_TOKENS || stop == G4_STOP_CONTEXT || stop == G4_STOP_CANCELED ||
                       (g4_answer_has_cut_call(c) && !g4_answer_has_calls(c));
    const char *reason = is_cut ? "length" : g4_answer_has_calls(c) ? "tool_calls" : "stop";
    g4_buf_fmt(b, ",\"finish_reason\":\"%s\"", reason);
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

static void g4_answer_logprobs(g4_buf *b, const g4_answer *c)
{
    if (!c->want_logprobs) {
        g4_buf_str(b, ",\"logprobs\":null");
        return;
    }
    g4_buf_str(b, ",\"logprobs\":{\"content\":[");
    for (int i = 0; i < c->n_logprobs; i++) {
        const g4_token_logprob *t = &c->logprobs[i];
        if (i > 0) g4_buf_str(b, ",");
        g4_answer_token(b, c->engine, t->token, t->logprob);
        g4_buf_str(b, ",\"top_logprobs\":[");
        for (int k = 0; k < t->n_top; k++) {
            if (k > 0) g4_buf_str(b, ",");
            g4_answer_token(b, c->engine, t->top[k].token, t->top[k].logprob);
            g4_buf_str(b, "}");
        }
        g4_buf_str(b, "]}");
    }
    g4_buf_str(b, "],\"refusal\":null}");
}

/* ---- A text that was continued -------------------------------------------------------------------- */

/* Its tokens, each list beside the others: texts, probabilities, the best in their place, where in the text they begin,
 * in bytes. */
static void g4_answer_lists(g4_buf *b, const g4_answer *c)
{
    char bytes[256];
    size_t offset = 0;
    g4_buf_str(b, "{\"tokens\":[");
    for (int i = 0; i < c->n_logprobs; i++) {
        if (i > 0) g4_buf_str(b, ",");
        g4_answer_spell(b, c->engine, c->logprobs[i].token, bytes);
    }
    g4_buf_str(b, "],\"token_logprobs\":[");
    for (int i = 0; i < c->n_logprobs; i++) {
        if (i > 0) g4_buf_str(b, ",");
        g4_answer_logprob(b, c->logprobs[i].logprob);
    }
    g4_buf_str(b, "],\"top_logprobs\":[");
    for (int i = 0; i < c->n_logprobs; i++) {
        g4_buf_str(b, i > 0 ? ",{" : "{");
        for (int k = 0; k < c->logprobs[i].n_top; k++) {
            if (k > 0) g4_buf_str(b, ",");
            g4_answer_spell(b, c->engine, c->logprobs[i].top[k].token, bytes);
            g4_buf_str(b, ":");
            g4_answer_logprob(b, c->logprobs[i].top[k].logprob);
        }
        g4_buf_str(b, "}");
    }
    g4_buf_str(b, "],\"text_offset\":[");
    for (int i = 0; i < c->n_logprobs; i++) {
        g4_buf_fmt(b, i > 0 ? ",%zu" : "%zu", offset);
        offset += g4_token_bytes(c->engine, c->logprobs[i].token, 0, bytes);
    }
    g4_buf_str(b, "]}");
}

static void g4_answer_completion(g4_buf *b, const g4_answer *c)
{
    g4_buf text = g4_answer_gather(c, G4_PART_TEXT, b->a);
    g4_buf_str(b, "\"text\":");
    g4_json_quote(b, text.len > 0 ? text.data : "", text.len);
    if (text.failed) b->failed = 1;
    g4_buf_free(&text);
    g4_buf_str(b, ",\"logprobs\":");
    if (c->want_logprobs)
        g4_answer_lists(b, c);
    else
        g4_buf_str(b, "null");
}

/* ---- Counts and times ---------------------------------------------------------------------------- */

static void g4_answer_usage(g4_buf *b, const g4_answer *c)
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

static void g4_answer_timings(g4_buf *b, const g4_answer *c)
{
    g4_buf_fmt(b, ",\"timings\":{\"cache_n\":%d,", c->cached_tokens);
    g4_answer_times(b, "prompt", c->prompt_tokens - c->cached_tokens, c->prompt_seconds);
    g4_buf_str(b, ",");
    g4_answer_times(b, "predicted", c->result.n_tokens, c->result.seconds);
    g4_buf_str(b, "}");
}

/* ---- The object ---------------------------------------------------------------------------------- */

static g4_status g4_answer_check(const g4_answer *c, g4_write_fn write, g4_error *err)
{
    if (c == NULL || write == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "%s is NULL", c == NULL ? "answer" : "write");
    if (c->n_parts < 0 || (c->n_parts > 0 && c->parts == NULL))
        return g4_fail(err, G4_ERR_ARGUMENT, "%d parts, and parts is %s", c->n_parts,
                       c->parts == NULL ? "NULL" : "set");
    if (c->n_logprobs < 0 || (c->n_logprobs > 0 && (c->logprobs == NULL || c->engine == NULL)))
        return g4_fail(err, G4_ERR_ARGUMENT, "%d logprobs, and logprobs or engine is NULL", c->n_logprobs);
    return G4_OK;
}

g4_status g4_answer_write(const g4_answer *c, g4_write_fn write, void *user, const g4_allocator *a, g4_error *err)
{
    g4_buf b = { .a = a };
    const g4_status st = g4_answer_check(c, write, err);
    if (st != G4_OK) return st;
    const char *model = c->model != NULL ? c->model : "gemma4";
    const char *fingerprint = c->fingerprint != NULL ? c->fingerprint : "gemma4.c-" G4_VERSION;
    g4_buf_fmt(&b, "{\"id\":\"%s-%016" PRIx64 "\",\"object\":\"%s\",\"created\":%" PRId64,
               c->is_completion ? "cmpl" : "chatcmpl", c->id, c->is_completion ? "text_completion" : "chat.completion",
               c->created != 0 ? c->created : (int64_t)time(NULL));
    g4_buf_str(&b, ",\"model\":");
    g4_json_quote(&b, model, strlen(model));
    g4_buf_str(&b, ",\"system_fingerprint\":");
    g4_json_quote(&b, fingerprint, strlen(fingerprint));
    g4_buf_str(&b, ",\"choices\":[{\"index\":0,");
    if (c->is_completion) {
        g4_answer_completion(&b, c);
    } else {
        g4_answer_message(&b, c);
        g4_answer_logprobs(&b, c);
    }
    g4_answer_finish(&b, c);
    g4_buf_str(&b, "}]");
    g4_answer_usage(&b, c);
    g4_answer_timings(&b, c);
    g4_buf_str(&b, "}\n");
    const int failed = b.failed, not_written = !failed && write(user, b.data, b.len) != 0;
    g4_buf_free(&b);
    if (failed) return g4_fail(err, G4_ERR_MEMORY, "no memory for an answer's text");
    return not_written ? g4_fail(err, G4_ERR_IO, "the answer could not be written") : G4_OK;
}
