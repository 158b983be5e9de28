/* test_http.c - requests of HTTP as cli/http.c reads them: whole and split at every byte the same, limits, what two
 * readers could understand differently, and the corpus of the fuzzer. */
#define LLVMFuzzerTestOneInput g4_fuzz_http
#include "fuzz/fuzz_http.c"
#undef LLVMFuzzerTestOneInput

#include "replay.h"
#include "test.h"

#include <string.h>

/* Read a request in pieces of `step` bytes; *used gets the bytes that it took. */
static void g4_read(http_request *r, const char *text, size_t len, size_t step, size_t *used)
{
    *used = 0;
    while (*used < len && r->state != HTTP_COMPLETE && r->state != HTTP_REFUSED) {
        const size_t left = len - *used, n = left < step ? left : step;
        char *piece = malloc(n); /* of its own, so that reading over its end is seen */
        memcpy(piece, text + *used, n);
        size_t done = 0;
        while (done < n && r->state != HTTP_COMPLETE && r->state != HTTP_REFUSED)
            done += http_push(r, piece + done, n - done);
        *used += done;
        free(piece);
    }
}

/* Whole, and split at every byte: the same state and body. Returns the status, 0 when it is complete, 1 when more is
 * wanted. */
static int g4_status_of(const char *text, size_t len, uint64_t max_body)
{
    http_request whole = { .max_body = max_body };
    size_t used, again;
    g4_read(&whole, text, len, len, &used);
    for (size_t step = 1; step <= len; step = step < 8 ? step + 1 : step * 2) {
        http_request r = { .max_body = max_body };
        g4_read(&r, text, len, step, &again);
        const int same = r.state == whole.state && r.status == whole.status && again == used &&
                         r.body.len == whole.body.len && r.n_fields == whole.n_fields &&
                         (r.body.len == 0 || memcmp(r.body.data, whole.body.data, r.body.len) == 0);
        G4_EXPECT(same, "in pieces of %zu: %.60s", step, text);
        http_free(&r);
    }
    const int status = whole.state == HTTP_REFUSED ? whole.status : whole.state == HTTP_COMPLETE ? 0 : 1;
    http_free(&whole);
    return status;
}

static void g4_expect_status(int want, const char *text)
{
    const int got = g4_status_of(text, strlen(text), 1000);
    G4_EXPECT(got == want, "%d, and %d was expected: %.80s", got, want, text);
}

#define HOST "Host: a\r\n"
#define POST "POST / HTTP/1.1\r\n" HOST
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"

static void g4_test_form(void)
{
    static const char text[] = "\r\nPOST /v1/x?y=1&z HTTP/1.1\r\nHost: [::1]:80\r\nContent-Type:application/json \r\n"
                               "X-Empty:\r\ncontent-length:  5\t\r\n\r\nhelloGET";
    http_request r = { .max_body = 5 };
    size_t used;
    g4_read(&r, text, strlen(text), 7, &used);
    G4_EXPECT(r.state == HTTP_COMPLETE && used == strlen(text) - 3, "state %d, %zu bytes", r.state, used);
    G4_EXPECT(strcmp(r.method, "POST") == 0 && strcmp(r.path, "/v1/x") == 0 && strcmp(r.query, "y=1&z") == 0, "%s %s",
              r.method, r.path);
    G4_EXPECT(strcmp(http_get(&r, "host"), "[::1]:80") == 0, "host");
    G4_EXPECT(strcmp(http_get(&r, "content-type"), "application/json") == 0, "%s", http_get(&r, "content-type"));
    G4_EXPECT(http_get(&r, "x-empty")[0] == '\0' && http_get(&r, "x-none") == NULL, "fields");
    G4_EXPECT(r.body.len == 5 && memcmp(r.body.data, "hello", 5) == 0 && r.keeps_alive, "body");
    http_next(&r);
    g4_read(&r, "GET / HTTP/1.0\r\n\r\n", 18, 18, &used);
    G4_EXPECT(r.state == HTTP_COMPLETE && !r.keeps_alive && r.minor == 0 && r.body.len == 0, "the next");
    http_next(&r);
    r.max_body = 15;
    static const char pieces[] = CHUNKED "5;a=\"b\"\r\nhello\r\n00A \r\n 0123456\r\n\r\n0\r\nX: y\r\nZ: \r\n\r\nrest";
    g4_read(&r, pieces, strlen(pieces), 500, &used);
    G4_EXPECT(r.state == HTTP_COMPLETE && used == strlen(pieces) - 4 && r.body.len == 15 &&
                  memcmp(r.body.data, "hello 0123456\r\n", 15) == 0,
              "chunks: state %d, %zu bytes, %zu of the body", r.state, used, r.body.len);
    http_free(&r);
}

static void g4_test_head(void)
{
    g4_expect_status(0, "GET / HTTP/1.1\r\n" HOST "\r\n");
    g4_expect_status(0, "GET http://host:80/x HTTP/1.1\r\n" HOST "\r\n");
    g4_expect_status(0, "OPTIONS * HTTP/1.1\r\n" HOST "\r\n");
    g4_expect_status(0, "GET / HTTP/1.0\r\n\r\n");
    g4_expect_status(0, "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    g4_expect_status(1, "GET / HTTP/1.1\r\n" HOST);
    g4_expect_status(400, "GET / HTTP/1.1\r\n\r\n");
    g4_expect_status(400, "GET / HTTP/1.1\n" HOST "\r\n");
    g4_expect_status(400, "GET / HTTP/1.1\r\nHost: a\n\r\n");
    g4_expect_status(400, "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n");
    g4_expect_status(400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n");
    g4_expect_status(400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n");
    g4_expect_status(400, "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n");
    g4_expect_status(400, "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n");
    g4_expect_status(400, "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n");
    g4_expect_status(400, "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n");
    g4_expect_status(400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    g4_expect_status(400, "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: b\r\nAuthorization: c\r\n\r\n");
    g4_expect_status(400, "GET  / HTTP/1.1\r\n" HOST "\r\n");
    g4_expect_status(400, "GET /\r\n\r\n");
    g4_expect_status(400, "GET / HTTP/1.1 x\r\n" HOST "\r\n");
    g4_expect_status(400, "GET x HTTP/1.1\r\n" HOST "\r\n");
    g4_expect_status(400, "GET /\x7f HTTP/1.1\r\n" HOST "\r\n");
    g4_expect_status(400, "G(T / HTTP/1.1\r\n" HOST "\r\n");
    g4_expect_status(400, "\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n");
    g4_expect_status(505, "GET / HTTP/2.0\r\n" HOST "\r\n");
    g4_expect_status(505, "GET / HTTP/1.2\r\n" HOST "\r\n");
    g4_expect_status(400, "GET / HTTP/11\r\n" HOST "\r\n");
    g4_expect_status(400, "\x16\x03\x01\x02\r\n\r\n");
    g4_expect_status(417, POST "Content-Length: 2\r\nExpect: more\r\n\r\nhi");
    G4_EXPECT(g4_status_of("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", 29, 10) == 400, "a NUL");
}

static void g4_test_body(void)
{
    g4_expect_status(0, POST "Content-Length: 2\r\n\r\nhi");
    g4_expect_status(0, POST "Content-Length: 0\r\n\r\n");
    g4_expect_status(1, POST "Content-Length: 3\r\n\r\nhi");
    g4_expect_status(400, POST "Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi");
    g4_expect_status(400, POST "Content-Length: 2, 2\r\n\r\nhi");
    g4_expect_status(400, POST "Content-Length: +2\r\n\r\nhi");
    g4_expect_status(400, POST "Content-Length: -2\r\n\r\nhi");
    g4_expect_status(400, POST "Content-Length: 0x2\r\n\r\nhi");
    g4_expect_status(400, POST "Content-Length:\r\n\r\nhi");
    g4_expect_status(400, POST "Content-Length: 99999999999999999999999999\r\n\r\nhi");
    g4_expect_status(413, POST "Content-Length: 1001\r\n\r\nhi");
    g4_expect_status(413, POST "Content-Length: 1844674407370955161\r\n\r\nhi");
    g4_expect_status(400, POST "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    g4_expect_status(400, POST "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n");
    g4_expect_status(400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    g4_expect_status(501, POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n");
    g4_expect_status(501, POST "Transfer-Encoding: identity\r\n\r\n");
    g4_expect_status(400, POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    g4_expect_status(400, POST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n");
    g4_expect_status(0, CHUNKED "2\r\nhi\r\n0\r\n\r\n");
    g4_expect_status(0, CHUNKED "2;x=y\r\nhi\r\n1 \r\n!\r\n000\r\nA: b\r\n\r\n");
    g4_expect_status(1, CHUNKED "2\r\nhi\r\n0\r\n");
    g4_expect_status(400, CHUNKED "2\nhi\r\n0\r\n\r\n");
    g4_expect_status(400, CHUNKED "2\r\nhi0\r\n\r\n");
    g4_expect_status(400, CHUNKED "2\r\nhi\n0\r\n\r\n");
    g4_expect_status(400, CHUNKED "\r\nhi\r\n0\r\n\r\n");
    g4_expect_status(400, CHUNKED "x\r\nhi\r\n0\r\n\r\n");
    g4_expect_status(400, CHUNKED "0x2\r\nhi\r\n0\r\n\r\n");
    g4_expect_status(400, CHUNKED "-2\r\nhi\r\n0\r\n\r\n");
    g4_expect_status(400, CHUNKED "2;\x01\r\nhi\r\n0\r\n\r\n");
    g4_expect_status(400, CHUNKED "10000000000000002\r\nhi\r\n0\r\n\r\n");
    g4_expect_status(413, CHUNKED "ffffffffffffffff\r\nhi\r\n0\r\n\r\n");
    g4_expect_status(413, CHUNKED "3e9\r\n");
    g4_expect_status(413, CHUNKED "2\r\nhi\r\n3e7\r\n");
    g4_expect_status(400, CHUNKED "0\r\nA: b\n\r\n");
}

/* A text of n times the same byte between two others. */
static int g4_long(const char *before, char c, size_t n, const char *after)
{
    const size_t a = strlen(before), b = strlen(after);
    char *text = malloc(a + n + b + 1);
    memcpy(text, before, a);
    memset(text + a, c, n);
    memcpy(text + a + n, after, b + 1);
    http_request r = { .max_body = 1 << 20 };
    size_t used;
    g4_read(&r, text, a + n + b, 4096, &used);
    const int status = r.state == HTTP_REFUSED ? r.status : r.state == HTTP_COMPLETE ? 0 : 1;
    http_free(&r);
    free(text);
    return status;
}

static void g4_test_limits(void)
{
    G4_EXPECT(g4_long("GET /", 'x', HTTP_MAX_HEAD, " HTTP/1.1\r\n" HOST "\r\n") == 414, "a long path");
    G4_EXPECT(g4_long("GET /", 'x', 8000, " HTTP/1.1\r\n" HOST "\r\n") == 0, "a path that fits");
    G4_EXPECT(g4_long("GET / HTTP/1.1\r\n" HOST "X: ", 'x', HTTP_MAX_HEAD, "\r\n\r\n") == 431, "a long field");
    G4_EXPECT(g4_long(CHUNKED "1;", 'x', HTTP_MAX_LINE, "\r\n") == 400, "a long line of a chunk");
    G4_EXPECT(g4_long(CHUNKED "0\r\nX: ", 'x', HTTP_MAX_HEAD, "\r\n\r\n") == 431, "long trailers");
    G4_EXPECT(g4_long(CHUNKED, '0', 300, "\r\n\r\n") == 400, "many digits");
    buffer b = { 0 };
    for (int n = 99; n <= 100; n++) {
        b.len = 0;
        buffer_str(&b, "GET / HTTP/1.1\r\n" HOST);
        for (int i = 0; i < n; i++) buffer_fmt(&b, "X-%d: y\r\n", i);
        buffer_str(&b, "\r\n");
        const int got = g4_status_of(b.data, b.len, 10), want = n == 99 ? 0 : 431;
        G4_EXPECT(got == want, "%d fields: %d", n + 1, got);
    }
    buffer_free(&b);
}

static void g4_test_connection(void)
{
    static const struct {
        const char *version, *field;
        int keeps_alive;
    } cases[] = { { "1.1", "X: y", 1 },
                  { "1.1", "Connection: close", 0 },
                  { "1.1", "Connection: x , Close", 0 },
                  { "1.1", "Connection: closed", 0 + 1 },
                  { "1.0", "X: y", 0 },
                  { "1.0", "Connection: keep-alive", 1 } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        buffer b = { 0 };
        http_request r = { .max_body = 0 };
        size_t used;
        buffer_fmt(&b, "GET / HTTP/%s\r\n" HOST "%s\r\n\r\n", cases[i].version, cases[i].field);
        g4_read(&r, b.data, b.len, b.len, &used);
        G4_EXPECT(r.keeps_alive == cases[i].keeps_alive, "%s %s", cases[i].version, cases[i].field);
        http_free(&r);
        buffer_free(&b);
    }
    http_request r = { .max_body = 9 };
    size_t used;
    g4_read(&r, POST "Content-Length: 2\r\nExpect: 100-Continue\r\n\r\n", strlen(POST) + 43, 100, &used);
    G4_EXPECT(r.has_head && r.expects_continue, "100-continue");
    http_free(&r);
}

int main(void)
{
    g4_test_form();
    g4_test_head();
    g4_test_body();
    g4_test_limits();
    g4_test_connection();
    const int n = g4_replay("tests/fuzz/corpus_http", g4_fuzz_http, 20);
    G4_EXPECT(n >= 8, "%d inputs in the corpus", n);
    return g4_test_end();
}
