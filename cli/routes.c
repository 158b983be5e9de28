/* routes.c - what the server answers where, and the answers that need no model. What clients of others ask for and
 * there is not is refused by name. */
#include "page.h"
#include "serve.h"

#include <string.h>
#include <strings.h>

/* ---- What the server says of itself ------------------------------------------------------------------------------ */

static void answer_health(connection *c)
{
    buffer b = { 0 };
    buffer_str(&b, "{\"status\":\"ok\"}\n");
    connection_answer(c, 200, NULL, &b, NULL);
    buffer_free(&b);
}

static void add_model(const server *s, buffer *b)
{
    const g4_engine_info *info = &s->shop.info;
    buffer_str(b, "{\"id\":");
    buffer_quote(b, info->name, strlen(info->name));
    buffer_fmt(b,
               ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"gemma4\",\"meta\":{\"n_ctx\":%d,\"n_vocab\":%d",
               (long long)s->created, context_size(s->args, info), info->n_vocab);
    buffer_fmt(b, ",\"n_params\":%llu,\"size\":%llu,\"is_chat\":%s,\"has_image\":%s,\"has_audio\":%s}}",
               (unsigned long long)info->n_params, (unsigned long long)info->file_bytes,
               info->is_chat ? "true" : "false", info->has_image ? "true" : "false",
               info->has_audio ? "true" : "false");
}

static void answer_models(connection *c)
{
    buffer b = { 0 };
    buffer_str(&b, "{\"object\":\"list\",\"data\":[");
    add_model(c->s, &b);
    buffer_str(&b, "]}\n");
    connection_answer(c, 200, NULL, &b, NULL);
    buffer_free(&b);
}

/* A part of a path, whose bytes may be written as %20. */
static void add_decoded(buffer *b, const char *text)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    for (; *text != '\0'; text++) {
        const char *high = *text == '%' && text[1] != '\0' ? strchr(digits, text[1]) : NULL;
        const char *low = high != NULL && text[2] != '\0' ? strchr(digits, text[2]) : NULL;
        const int byte = low != NULL ? (int)((high - digits) % 16 * 16 + (low - digits) % 16) : (unsigned char)*text;
        const char c = (char)byte;
        if (low != NULL) text += 2;
        buffer_add(b, &c, 1);
    }
}

static void answer_model(connection *c)
{
    buffer b = { 0 }, asked = { 0 };
    add_decoded(&asked, c->request.path + strlen("/v1/models/"));
    const char *name = buffer_text(&asked);
    if (strcmp(name, c->s->shop.info.name) != 0) {
        connection_error(c, 404, "model", "there is no model %.100s here: expected %s", name, c->s->shop.info.name);
    } else {
        add_model(c->s, &b);
        buffer_str(&b, "\n");
        connection_answer(c, 200, NULL, &b, NULL);
    }
    buffer_free(&b);
    buffer_free(&asked);
}

/* What vLLM says of a tokenizer, but for its template, which is no text here. */
static void answer_tokenizer(connection *c)
{
    const g4_engine_info *info = &c->s->shop.info;
    const struct {
        const char *name;
        g4_token id;
    } tokens[] = { { "bos_token", info->bos }, { "eos_token", info->eos }, { "pad_token", info->pad } };
    buffer b = { 0 };
    char bytes[256];
    buffer_str(&b, "{\"tokenizer_class\":\"GemmaTokenizer\"");
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        buffer_fmt(&b, ",\"%s\":", tokens[i].name);
        buffer_quote(&b, bytes, g4_token_bytes(c->s->shop.engine, tokens[i].id, 0, bytes));
    }
    buffer_fmt(&b, ",\"vocab_size\":%d,\"model_max_length\":%d}\n", info->n_vocab, context_size(c->s->args, info));
    connection_answer(c, 200, NULL, &b, NULL);
    buffer_free(&b);
}

static void add_metric(buffer *b, const char *name, const char *kind, const char *help, double value)
{
    buffer_fmt(b, "# HELP gemma4_%s %s\n# TYPE gemma4_%s %s\ngemma4_%s %.17g\n", name, help, name, kind, name, value);
}

static void answer_metrics(connection *c)
{
    server *s = c->s;
    server_counts *n = &s->counts;
    buffer b = { 0 };
    int n_waiting, n_running;
    scheduler_counts(&s->scheduler, &n_waiting, &n_running);
    pthread_mutex_lock(&s->lock);
    const int n_connections = s->n_connections;
    pthread_mutex_unlock(&s->lock);
    const struct {
        const char *name, *kind, *help;
        double value;
    } metrics[] = {
        { "requests_total", "counter", "Requests that were read.", (double)atomic_load(&n->requests) },
        { "refused_total", "counter", "Answers with a status from 400 to 499.", (double)atomic_load(&n->refused) },
        { "failed_total", "counter", "Answers with a status from 500.", (double)atomic_load(&n->failed) },
        { "gone_total", "counter", "Clients that went before their answer ended.", (double)atomic_load(&n->gone) },
        { "prompt_tokens_total", "counter", "Tokens of prompts.", (double)atomic_load(&n->prompt_tokens) },
        { "cached_tokens_total", "counter", "Of them, not evaluated again.", (double)atomic_load(&n->cached_tokens) },
        { "answer_tokens_total", "counter", "Tokens of answers.", (double)atomic_load(&n->answer_tokens) },
        { "waiting", "gauge", "Requests in the queue.", n_waiting },
        { "running", "gauge", "Answers on their way.", n_running },
        { "connections", "gauge", "Connections.", n_connections },
        { "sessions", "gauge", "Conversations that are kept.", (double)atomic_load(&s->scheduler.n_kept) },
        { "idle_bytes", "gauge", "Memory of those without use.", (double)atomic_load(&s->scheduler.kept_bytes) },
        { "uptime_seconds", "gauge", "Seconds since the server began.", seconds_now() - s->began },
    };
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++)
        add_metric(&b, metrics[i].name, metrics[i].kind, metrics[i].help, metrics[i].value);
    connection_answer(c, 200, "text/plain; version=0.0.4; charset=utf-8", &b, NULL);
    buffer_free(&b);
}

/* The page speaks to this server alone, and nobody else may show it as a part of theirs. */
static void answer_page(connection *c)
{
    static const char policy[] = "Content-Security-Policy: default-src 'none'; script-src 'unsafe-inline'; "
                                 "style-src 'unsafe-inline'; img-src data: blob:; media-src data: blob:; "
                                 "connect-src 'self'; base-uri 'none'; form-action 'none'; "
                                 "frame-ancestors 'none'\r\n"
                                 "Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n";
    buffer b = { 0 };
    for (size_t i = 0; i < sizeof page_lines / sizeof page_lines[0]; i++) buffer_str(&b, page_lines[i]);
    connection_answer(c, 200, "text/html; charset=utf-8", &b, policy);
    buffer_free(&b);
}

/* ---- Where ------------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *method, *path; /* a path that ends in * is a beginning */
    void (*answer)(connection *c);
    int is_open; /* it needs no key */
} served_route;

static const served_route routes[] = {
    { "POST", "/v1/chat/completions", answer_chat, 0 },
    { "POST", "/v1/completions", answer_completion, 0 },
    { "POST", "/v1/messages", answer_chat, 0 },
    { "POST", "/v1/messages/count_tokens", answer_count, 0 },
    { "POST", "/v1/responses", answer_chat, 0 },
    { "POST", "/v1/responses/input_tokens", answer_count, 0 },
    { "POST", "/v1/chat/completions/input_tokens", answer_count, 0 },
    { "POST", "/v1/audio/transcriptions", answer_transcription, 0 },
    { "POST", "/tokenize", answer_tokens, 0 },
    { "POST", "/detokenize", answer_text, 0 },
    { "GET", "/tokenizer_info", answer_tokenizer, 0 },
    { "POST", "/apply-template", answer_template, 0 },
    { "GET", "/v1/models", answer_models, 0 },
    { "GET", "/v1/models/*", answer_model, 0 },
    { "GET", "/metrics", answer_metrics, 0 },
    { "GET", "/health", answer_health, 1 },
    { "GET", "/", answer_page, 1 },
};

static int is_at(const char *path, const char *pattern)
{
    const size_t n = strlen(pattern);
    return pattern[n - 1] == '*' ? strncmp(path, pattern, n - 1) == 0 : strcmp(path, pattern) == 0;
}

static const served_route *find_route(const char *path)
{
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        if (is_at(path, routes[i].path)) return &routes[i];
    }
    return NULL;
}

/* What others serve and this does not. */
static void refuse_path(connection *c)
{
    static const char *const known[] = {
        "/v1/embeddings",  "/embeddings",       "/v1/images/*",    "/v1/audio/*",    "/v1/files*",
        "/v1/batches*",    "/v1/fine_tuning/*", "/v1/moderations", "/v1/responses*", "/v1/messages*",
        "/v1/assistants*", "/v1/threads*",      "/v1/rerank",      "/rerank",        "/infill",
        "/completion",     "/slots*",           "/api/*",          "/v1/realtime*",  "/v1/vector_stores*",
        "/lora-adapters",  "/v1/conversations*"
    };
    const char *path = c->request.path;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (!is_at(path, known[i])) continue;
        connection_error(c, 404, NULL, "%.100s is not served here", path); /* 501 would be tried again */
        return;
    }
    connection_error(c, 404, NULL, "there is nothing at %.100s", path);
}

static int is_method(const char *method, const served_route *route)
{
    return strcmp(method, route->method) == 0 || (strcmp(method, "HEAD") == 0 && strcmp(route->method, "GET") == 0);
}

static void refuse_method(connection *c, const served_route *route)
{
    connection_error(c, 405, NULL, "%s: expected %s, found %.20s", route->path, route->method, c->request.method);
}

/* What a page may send, which its browser asks first: clients of all kinds add fields of their own, and a page that may
 * ask may add any. */
static void allow_methods(connection *c)
{
    const char *asked = http_get(&c->request, "access-control-request-headers");
    buffer none = { 0 }, fields = { 0 };
    if (c->origin != NULL)
        buffer_fmt(&fields,
                   "Access-Control-Allow-Methods: GET, HEAD, POST, OPTIONS\r\nAccess-Control-Allow-Headers: %s\r\n"
                   "Access-Control-Max-Age: 600\r\n",
                   asked != NULL ? asked : "Authorization, Content-Type, X-Api-Key");
    connection_answer(c, 204, NULL, &none, buffer_text(&fields));
    buffer_free(&fields);
}

static int is_json(const char *type)
{
    static const char form[] = "application/x-www-form-urlencoded"; /* what curl -d says of any body */
    if (type == NULL) return 1;                                     /* whoever says nothing sends what is expected */
    const size_t n = strcspn(type, "; \t");                         /* names without regard to case */
    if (n == sizeof form - 1 && strncasecmp(type, form, n) == 0) return 1;
    return (n == 16 && strncasecmp(type, "application/json", n) == 0) ||
           (n > 5 && strncasecmp(type, "application/", 12) == 0 && strncasecmp(type + n - 5, "+json", 5) == 0);
}

int route_head(connection *c)
{
    const http_request *r = &c->request;
    const served_route *route = find_route(r->path);
    if (strncmp(r->path, "/v1/messages", 12) == 0) c->dialect = G4_DIALECT_ANTHROPIC;
    if (strncmp(r->path, "/v1/responses", 13) == 0) c->dialect = G4_DIALECT_RESPONSES;
    if (strcmp(r->path, "/tokenize") == 0 || strcmp(r->path, "/detokenize") == 0) c->dialect = G4_DIALECT_TOKENS;
    if (strcmp(r->path, "/v1/completions") == 0) c->dialect = G4_DIALECT_COMPLETIONS;
    const int is_options = strcmp(r->method, "OPTIONS") == 0, is_post = strcmp(r->method, "POST") == 0;
    if (route != NULL) c->allowed = strcmp(route->method, "POST") == 0 ? "POST, OPTIONS" : "GET, HEAD, OPTIONS";
    if (!access_allowed(c, !is_options && (route == NULL || !route->is_open))) return 0;
    if (is_options)
        allow_methods(c);
    else if (route == NULL)
        refuse_path(c);
    else if (!is_method(r->method, route))
        refuse_method(c, route);
    else if (is_post && !r->has_body)
        connection_error(c, 411, NULL, "expected a body with its Content-Length, or in chunks");
    else if (is_post && route->answer != answer_transcription && !is_json(http_get(r, "content-type")))
        connection_error(c, 415, NULL, "Content-Type: expected application/json, found %.100s",
                         http_get(r, "content-type"));
    else
        return 1;
    return 0;
}

void route_request(connection *c) { find_route(c->request.path)->answer(c); }
