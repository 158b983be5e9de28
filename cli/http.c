/* http.c - requests of HTTP/1.1 as they come, byte by byte, and the heads of answers. It reads bytes and knows no
 * sockets, so that every way of splitting a request can be tried. What two readers could understand differently (two
 * lengths, a length and chunks, a bare line feed, a blank in a name) is refused: nobody can hide a second request in a
 * first one. */
#include "serve.h"

#include <string.h>

/* ---- What is refused --------------------------------------------------------------------------------------- */

static void refuse(http_request *r, int status, const char *why)
{
    r->state = HTTP_REFUSED;
    r->status = status;
    r->why = why;
}

const char *http_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = { { 100, "Continue" },
                    { 200, "OK" },
                    { 204, "No Content" },
                    { 400, "Bad Request" },
                    { 401, "Unauthorized" },
                    { 403, "Forbidden" },
                    { 404, "Not Found" },
                    { 405, "Method Not Allowed" },
                    { 408, "Request Timeout" },
                    { 411, "Length Required" },
                    { 413, "Content Too Large" },
                    { 414, "URI Too Long" },
                    { 415, "Unsupported Media Type" },
                    { 417, "Expectation Failed" },
                    { 421, "Misdirected Request" },
                    { 431, "Request Header Fields Too Large" },
                    { 500, "Internal Server Error" },
                    { 501, "Not Implemented" },
                    { 503, "Service Unavailable" },
                    { 505, "HTTP Version Not Supported" } };
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (reasons[i].status == status) return reasons[i].reason;
    }
    return "Unknown";
}

/* ---- Fields ---------------------------------------------------------------------------------------------------- */

static int is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }

int http_same(const char *a, const char *b)
{
    while (*a != '\0' && lower(*a) == lower(*b)) a++, b++;
    return *a == *b;
}

const char *http_get(const http_request *r, const char *name)
{
    for (int i = 0; i < r->n_fields; i++) {
        if (strcmp(r->fields[i].name, name) == 0) return r->fields[i].value;
    }
    return NULL;
}

/* Those whose second one could contradict the first. */
static int stands_once(const char *name)
{
    static const char *const names[] = { "host",   "content-length", "transfer-encoding", "authorization",
                                         "origin", "content-type",   "x-api-key",         "expect" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) return 1;
    }
    return 0;
}

/* Is `word` one of the list, whose members commas part? */
static int list_has(const char *list, const char *word)
{
    const size_t n = strlen(word);
    while (list != NULL && *list != '\0') {
        list += strspn(list, " \t,");
        size_t len = strcspn(list, ","), i = 0;
        while (i < n && i < len && lower(list[i]) == word[i]) i++;
        if (i == n && strspn(list + n, " \t") == len - n) return 1;
        list += len;
    }
    return 0;
}

/* "name: value" without its line end, which is a NUL. */
static void read_field(http_request *r, char *line, char *end)
{
    char *colon = line, *value;
    while (is_token_char(*colon)) {
        *colon = lower(*colon);
        colon++;
    }
    if (colon == line || *colon != ':') {
        refuse(r, 400, "expected header fields as \"Name: value\", without a blank in or behind the name");
        return;
    }
    *colon = '\0';
    value = colon + 1 + strspn(colon + 1, " \t");
    while (end > value && (end[-1] == ' ' || end[-1] == '\t')) end--;
    *end = '\0';
    for (const char *c = value; *c != '\0'; c++) {
        if (((unsigned char)*c < ' ' && *c != '\t') || *c == 127) {
            refuse(r, 400, "a header field holds a control character");
            return;
        }
    }
    if (stands_once(line) && http_get(r, line) != NULL) {
        refuse(r, 400, "a header field stands twice that may stand once");
    } else if (r->n_fields == HTTP_MAX_FIELDS) {
        refuse(r, 431, "expected at most 100 header fields");
    } else {
        r->fields[r->n_fields++] = (http_field) { line, value };
    }
}

/* ---- The head -------------------------------------------------------------------------------------------------- */

/* The path and what stands behind its question mark, of "/path?query", "http://host/path", or "*". */
static void read_target(http_request *r, char *target)
{
    if (strncmp(target, "http://", 7) == 0) {
        target += 7 + strcspn(target + 7, "/");
        if (*target == '\0') target = "/";
    }
    if (*target != '/' && strcmp(target, "*") != 0) {
        refuse(r, 400, "expected a path that begins with /");
        return;
    }
    r->path = target;
    char *query = strchr(target, '?');
    r->query = query != NULL ? query + 1 : "";
    if (query != NULL) *query = '\0';
}

/* "METHOD target HTTP/1.1" */
static void read_request_line(http_request *r, char *line)
{
    char *target = line, *version;
    while (is_token_char(*target)) target++;
    version = *target == ' ' ? strchr(target + 1, ' ') : NULL;
    if (target == line || version == NULL || version == target + 1) {
        refuse(r, 400, "expected \"METHOD /path HTTP/1.1\"");
        return;
    }
    *target++ = *version++ = '\0';
    for (const char *c = target; *c != '\0'; c++) {
        if ((unsigned char)*c <= ' ' || *c == 127) {
            refuse(r, 400, "the path holds a control character");
            return;
        }
    }
    if (strncmp(version, "HTTP/", 5) != 0 || strlen(version) != 8 || version[6] != '.') {
        refuse(r, 400, "expected \"METHOD /path HTTP/1.1\"");
    } else if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0) {
        refuse(r, 505, "expected HTTP/1.1");
    } else {
        r->method = line;
        r->minor = version[7] - '0';
        read_target(r, target);
    }
}

/* A number in digits alone; 0: it is none, or too large. */
static int read_length(const char *text, uint64_t *out)
{
    *out = 0;
    for (const char *c = text; *c != '\0'; c++) {
        if (*c < '0' || *c > '9' || *out > (UINT64_MAX - 9) / 10) return 0;
        *out = 10 * *out + (uint64_t)(*c - '0');
    }
    return text[0] != '\0';
}

/* How the body comes. */
static void read_framing(http_request *r)
{
    const char *length = http_get(r, "content-length"), *coding = http_get(r, "transfer-encoding");
    const char *expect = http_get(r, "expect");
    r->has_body = length != NULL || coding != NULL;
    if (length != NULL && coding != NULL) {
        refuse(r, 400, "expected Content-Length or Transfer-Encoding, found both");
    } else if (coding != NULL && r->minor == 0) {
        refuse(r, 400, "Transfer-Encoding belongs to HTTP/1.1");
    } else if (coding != NULL && !http_same(coding, "chunked")) {
        refuse(r, 501, "expected Transfer-Encoding: chunked");
    } else if (length != NULL && !read_length(length, &r->left)) {
        refuse(r, 400, "expected Content-Length as one whole number");
    } else if (r->left > r->max_body) {
        refuse(r, 413, "the body is larger than --max-body allows");
    } else if (expect != NULL && !http_same(expect, "100-continue")) {
        refuse(r, 417, "expected Expect: 100-continue");
    } else if (coding != NULL) {
        r->state = HTTP_CHUNK_SIZE;
    } else {
        r->state = r->left > 0 ? HTTP_BODY : HTTP_COMPLETE;
    }
    r->expects_continue = expect != NULL && r->minor > 0 && r->state != HTTP_COMPLETE;
}

/* All lines of the head are there: they become texts of their own. */
static void read_head(http_request *r)
{
    char *line = r->head.data, *const end = line + r->head.len - 2;
    for (int n = 0; line < end && r->state != HTTP_REFUSED; n++) {
        char *stop = strchr(line, '\r');
        *stop = '\0';
        if (n == 0)
            read_request_line(r, line);
        else
            read_field(r, line, stop);
        line = stop + 2;
    }
    if (r->state == HTTP_REFUSED) return;
    const char *wish = http_get(r, "connection");
    r->keeps_alive = r->minor > 0 ? !list_has(wish, "close") : list_has(wish, "keep-alive");
    if (r->minor > 0 && http_get(r, "host") == NULL)
        refuse(r, 400, "expected a Host field");
    else
        read_framing(r);
    r->has_head = r->state != HTTP_REFUSED;
}

static void take_head_byte(http_request *r, char c)
{
    buffer *h = &r->head;
    const char last = h->len > 0 ? h->data[h->len - 1] : '\0';
    if (c == '\0' || (c == '\n') != (last == '\r')) {
        refuse(r, 400, "expected lines that end with a carriage return and a line feed");
        return;
    }
    if (h->len == HTTP_MAX_HEAD) {
        const int is_in_line = memchr(h->data, '\n', h->len) == NULL;
        refuse(r, is_in_line ? 414 : 431, is_in_line ? "the path is too long" : "expected a head of at most 16 KB");
        return;
    }
    buffer_add(h, &c, 1);
    if (h->failed) {
        refuse(r, 500, "no memory for a request");
    } else if (c == '\n' && h->len == 2) {
        h->len = 0; /* an empty line in front, as some clients send behind the last body; one */
        if (r->had_blank_line) refuse(r, 400, "expected \"METHOD /path HTTP/1.1\"");
        r->had_blank_line = 1;
    } else if (c == '\n' && h->len > 3 && h->data[h->len - 3] == '\n') {
        read_head(r);
    }
}

/* ---- The body -------------------------------------------------------------------------------------------------- */

static size_t take_body(http_request *r, const char *data, size_t n)
{
    const size_t take = n < r->left ? n : (size_t)r->left;
    buffer_add(&r->body, data, take);
    r->left -= take;
    if (r->body.failed)
        refuse(r, 500, "no memory for a request");
    else if (r->left == 0)
        r->state = r->state == HTTP_BODY ? HTTP_COMPLETE : HTTP_CHUNK_END;
    return take;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The line of a chunk's size is at its end. */
static void begin_chunk(http_request *r)
{
    if (r->n_digits == 0)
        refuse(r, 400, "expected the size of a chunk");
    else if (r->left > r->max_body - r->body.len)
        refuse(r, 413, "the body is larger than --max-body allows");
    else
        r->state = r->left > 0 ? HTTP_CHUNK : HTTP_TRAILER;
    r->n_line = r->n_digits = 0;
}

/* Hexadecimal digits, perhaps an extension, which says nothing here. */
static void take_size_byte(http_request *r, char c)
{
    const int digit = hex_digit(c), is_digits = r->n_line == r->n_digits;
    if (r->was_return && c != '\n') {
        refuse(r, 400, "expected lines that end with a carriage return and a line feed");
    } else if (c == '\r') {
        r->was_return = 1;
    } else if (c == '\n') {
        if (r->was_return)
            begin_chunk(r);
        else
            refuse(r, 400, "expected lines that end with a carriage return and a line feed");
        r->was_return = 0;
    } else if (r->n_line++ == HTTP_MAX_LINE) {
        refuse(r, 400, "the line of a chunk is too long");
    } else if (digit >= 0 && is_digits) {
        if (r->left > UINT64_MAX >> 4) refuse(r, 400, "the size of a chunk is too large");
        r->left = r->left << 4 | (uint64_t)digit;
        r->n_digits++;
    } else if (is_digits && c != ';' && c != ' ' && c != '\t') {
        refuse(r, 400, "expected the size of a chunk in hexadecimal digits");
    } else if ((unsigned char)c < ' ' && c != '\t') {
        refuse(r, 400, "the line of a chunk holds a control character");
    }
}

static void take_chunk_end(http_request *r, char c)
{
    if (c != (r->was_return ? '\n' : '\r'))
        refuse(r, 400, "expected the end of a chunk where its size says");
    else if (r->was_return)
        r->state = HTTP_CHUNK_SIZE;
    r->was_return = !r->was_return;
}

/* Lines behind the last chunk, up to an empty one; nothing there counts. */
static void take_trailer_byte(http_request *r, char c)
{
    if ((c == '\n') != r->was_return || c == '\0') {
        refuse(r, 400, "expected lines that end with a carriage return and a line feed");
    } else if (c == '\n') {
        if (r->n_line == 0) r->state = HTTP_COMPLETE;
        r->n_line = 0;
    } else if (c != '\r') {
        r->n_line++;
        if (r->n_trailer++ == HTTP_MAX_HEAD) refuse(r, 431, "expected trailers of at most 16 KB");
    }
    r->was_return = c == '\r';
}

/* ---- Bytes ------------------------------------------------------------------------------------------------------ */

size_t http_push(http_request *r, const char *data, size_t n)
{
    const http_state first = r->state;
    size_t i = 0;
    while (i < n && r->state != HTTP_COMPLETE && r->state != HTTP_REFUSED) {
        switch (r->state) {
        case HTTP_HEAD: take_head_byte(r, data[i++]); break;
        case HTTP_BODY:
        case HTTP_CHUNK: i += take_body(r, data + i, n - i); break;
        case HTTP_CHUNK_SIZE: take_size_byte(r, data[i++]); break;
        case HTTP_CHUNK_END: take_chunk_end(r, data[i++]); break;
        case HTTP_TRAILER: take_trailer_byte(r, data[i++]); break;
        case HTTP_COMPLETE:
        case HTTP_REFUSED: break;
        }
        if (first == HTTP_HEAD && r->has_head) break; /* whoever waits may look at it first */
    }
    return i;
}

void http_next(http_request *r)
{
    buffer head = r->head, body = r->body;
    const uint64_t max_body = r->max_body;
    head.len = body.len = 0;
    if (body.cap > HTTP_KEPT_BODY) buffer_free(&body);
    *r = (http_request) { .head = head, .body = body, .max_body = max_body };
}

void http_free(http_request *r)
{
    buffer_free(&r->head);
    buffer_free(&r->body);
}

/* ---- Answers ----------------------------------------------------------------------------------------------------- */

void http_head(buffer *out, int status, const char *type, int64_t length, const char *fields, int keeps_alive)
{
    buffer_fmt(out, "HTTP/1.1 %d %s\r\n", status, http_reason(status));
    if (type != NULL) buffer_fmt(out, "Content-Type: %s\r\n", type);
    if (length >= 0)
        buffer_fmt(out, "Content-Length: %lld\r\n", (long long)length);
    else if (length == HTTP_CHUNKED)
        buffer_str(out, "Transfer-Encoding: chunked\r\n");
    if (length < 0) buffer_str(out, "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n");
    if (fields != NULL) buffer_str(out, fields);
    buffer_str(out, "X-Content-Type-Options: nosniff\r\n");
    buffer_str(out, keeps_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n");
}

void http_chunk(buffer *out, const char *data, size_t n)
{
    if (n == 0) return; /* an empty one would be the last */
    buffer_fmt(out, "%zx\r\n", n);
    buffer_add(out, data, n);
    buffer_str(out, "\r\n");
}
