/* test_serve.c - gemma4 serve as clients meet it, on sockets of their own: answers that are the same whoever else asks,
 * clients that go, clients that do not read.
 * G4_PROGRAM names the program; the model is the bundled one. */
#include "serve_client.h"
#include "test.h"

/* ---- Answers ----------------------------------------------------------------------------------------------------- */

/* What the server says is what the program says. */
static void g4_test_alone(const g4_server *s)
{
    static const char *const bodies[] = {
        "{\"messages\":[{\"role\":\"user\",\"content\":\"What is the sum of 4 and 5?\"}],\"temperature\":0}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":30,\"temperature\":1,\"seed\":7,"
        "\"logprobs\":true,\"top_logprobs\":3}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"response_format\":{\"type\":\"json_schema\","
        "\"json_schema\":{\"name\":\"n\",\"schema\":{\"enum\":[\"x\",\"yz\"]}}}}",
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hello\"}]}],\"stop\":[\"o\"]}"
    };
    const char *program = getenv("G4_PROGRAM");
    char *answer = malloc(TEXT), *alone = malloc(TEXT), command[512];
    char path[] = "/tmp/g4-serve-XXXXXX";
    const int fd = mkstemp(path);
    snprintf(command, sizeof command, "%s -m " MODEL " --messages %s --json=openai --quiet < /dev/null",
             program != NULL ? program : "./gemma4", path);
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        const int status = g4_ask(s, CHAT, bodies[i], answer);
        const size_t n = strlen(bodies[i]);
        if (ftruncate(fd, 0) != 0 || pwrite(fd, bodies[i], n, 0) != (ssize_t)n) break;
        FILE *p = popen(command, "r");
        const size_t len = fread(alone, 1, TEXT - 1, p);
        alone[len] = '\0';
        pclose(p);
        G4_EXPECT(status == 200, "%d: %s", status, answer);
        const char *got = g4_choices(answer), *want = g4_choices(alone);
        G4_EXPECT(strcmp(got, want) == 0, "%s\nalone: %s", got, want);
    }
    close(fd);
    unlink(path);
    free(answer);
    free(alone);
}

/* The text of all deltas of a stream. */
static void g4_deltas(const char *stream, char *out)
{
    static const char key[] = "\"delta\":{\"content\":\"";
    for (const char *at = stream; (at = strstr(at, key)) != NULL;) {
        at += strlen(key);
        const char *end = strstr(at, "\"},\"logprobs\"");
        memcpy(out, at, (size_t)(end - at));
        out += end - at;
    }
    *out = '\0';
}

static void g4_test_streams(const g4_server *s)
{
    char *whole = malloc(TEXT), *stream = malloc(TEXT), *text = malloc(TEXT);
    char body[512];
    for (int i = 0; i < 3; i++) {
        static const char form[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"count %d things\"}],"
                                   "\"max_tokens\":40,\"temperature\":1,\"seed\":%d%s}";
        snprintf(body, sizeof body, form, i, i, "");
        G4_EXPECT(g4_ask(s, CHAT, body, whole) == 200, "%s", whole);
        snprintf(body, sizeof body, form, i, i, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
        G4_EXPECT(g4_ask(s, CHAT, body, stream) == 200, "%s", stream);
        g4_deltas(stream, text);
        const char *content = strstr(whole, "\"content\":\"") + strlen("\"content\":\"");
        G4_EXPECT(strncmp(content, text, strlen(text)) == 0 && content[strlen(text)] == '"', "%.100s, %s", content,
                  text);
        G4_EXPECT(strstr(stream, "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}") != NULL, "the role");
        G4_EXPECT(strstr(stream, "\"choices\":[],\"usage\":{\"prompt_tokens\":") != NULL, "usage");
        G4_EXPECT(strstr(stream, "data: [DONE]\n\n\r\n0\r\n\r\n") != NULL, "the end");
    }
    static const char messages[] =
        "{\"max_tokens\":9,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}";
    G4_EXPECT(g4_ask(s, "/v1/messages", messages, stream) == 200, "%s", stream);
    G4_EXPECT(strstr(stream, "event: message_start\n") && strstr(stream, "event: message_stop\n"), "%s", stream);
    G4_EXPECT(g4_ask(s, "/v1/responses", "{\"input\":\"x\",\"stream\":true,\"max_output_tokens\":9}", stream) == 200,
              "%s", stream);
    G4_EXPECT(strstr(stream, "event: response.created\n") && strstr(stream, "event: response.output_text.done\n"), "%s",
              stream);
    static const char text_body[] = "{\"prompt\":\"once\",\"stream\":true,\"max_tokens\":4,\"temperature\":0}";
    G4_EXPECT(g4_ask(s, "/v1/completions", text_body, stream) == 200, "%s", stream);
    G4_EXPECT(strstr(stream, "\"object\":\"text_completion\"") && strstr(stream, "[DONE]"), "%s", stream);
    free(whole);
    free(stream);
    free(text);
}

/* ---- Sounds ------------------------------------------------------------------------------------------------------ */

/* What is said in examples/speech.wav, as a form with a field in front of the sound. */
static void g4_test_sound(const g4_server *s)
{
    static const char after[] = "\r\n--b--\r\n";
    static const struct {
        const char *name, *value;
        size_t len;
        int status;
        const char *says;
    } cases[] = { { "response_format", "json", 4, 200, "{\"text\":\"the green train near the river\"" },
                  { "response_format", "text", 4, 200, "\r\n\r\nthe green train near the river\n" },
                  { "response_format", "verbose_json", 12, 200, "\"start\":0.000,\"end\":1.569," },
                  { "response_format", "srt", 3, 400, "\"param\":\"response_format\"" },
                  { "stream", "False", 5, 200, "{\"text\":\"the green" },
                  { "stream", "True", 4, 400, "\"param\":\"stream\"" },
                  { "stream", "1", 1, 400, "\"param\":\"stream\"" },
                  { "timestamp_granularities[]", "segment", 7, 200, "{\"text\":\"the green" },
                  { "timestamp_granularities[]", "minute", 6, 400, "\"param\":\"timestamp_granularities[]\"" },
                  { "temperature", "0.0", 3, 200, "{\"text\":\"the green" },
                  { "temperature", "0x1p1", 5, 400, "\"param\":\"temperature\"" },
                  { "temperature", "nan", 3, 400, "\"param\":\"temperature\"" },
                  { "prompt", "", 0, 200, "{\"text\":\"the green" },
                  { "prompt", "a\0b", 3, 400, "\"param\":\"prompt\"" },
                  { "prompt", NULL, 60000, 400, "\"param\":\"prompt\",\"code\":\"context_length_exceeded\"" },
                  { "file", "RIFF", 4, 400, "\"param\":\"file\"" } };
    char *text = malloc(TEXT), *sound = malloc(TEXT), *answer = malloc(TEXT), *long_text = malloc(60000);
    FILE *f = fopen("examples/speech.wav", "rb");
    const size_t size = f != NULL ? fread(sound, 1, TEXT / 2, f) : 0;
    if (f != NULL) fclose(f);
    for (size_t i = 0; i < 60000; i++) long_text[i] = "word "[i % 5];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char head[256], field[256];
        const int n =
            snprintf(field, sizeof field, "--b\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n", cases[i].name);
        const char before[] = "\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x.wav\"\r\n\r\n";
        const size_t total = (size_t)n + cases[i].len + strlen(before) + size + strlen(after);
        const int n_head = snprintf(head, sizeof head,
                                    "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\n"
                                    "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: %zu\r\n\r\n",
                                    total);
        const struct {
            const char *data;
            size_t len;
        } pieces[] = { { head, (size_t)n_head },
                       { field, (size_t)n },
                       { cases[i].value != NULL ? cases[i].value : long_text, cases[i].len },
                       { before, strlen(before) },
                       { sound, size },
                       { after, strlen(after) } };
        char *at = text;
        for (size_t k = 0; k < sizeof pieces / sizeof pieces[0]; at += pieces[k++].len)
            memcpy(at, pieces[k].data, pieces[k].len);
        const int fd = g4_connect(s);
        g4_send(fd, text, (size_t)(at - text));
        const int status = g4_read_answer(fd, answer, 20);
        G4_EXPECT(status == cases[i].status && strstr(answer, cases[i].says) != NULL, "%s %zu: %d, %s", cases[i].name,
                  i, status, answer);
        close(fd);
    }
    free(text);
    free(sound);
    free(answer);
    free(long_text);
}

/* ---- Many at a time ---------------------------------------------------------------------------------------------- */

typedef struct {
    const g4_server *s;
    const char *body;
    char *answer;
    int status;
} g4_asker;

static void *g4_asker_main(void *arg)
{
    g4_asker *a = arg;
    a->status = g4_ask(a->s, CHAT, a->body, a->answer);
    return NULL;
}

enum { MAX_ASKERS = 12 };

static void g4_ask_together(g4_asker *askers, int n)
{
    pthread_t threads[MAX_ASKERS];
    for (int i = 0; i < n; i++) pthread_create(&threads[i], NULL, g4_asker_main, &askers[i]);
    for (int i = 0; i < n; i++) pthread_join(threads[i], NULL);
}

/* Each has the choices that it gets when it asks again, alone: bit for bit, since log-probabilities are among them. */
static void g4_expect_as_alone(g4_asker *askers, int n)
{
    char *alone = malloc(TEXT);
    for (int i = 0; i < n; i++) {
        g4_ask(askers[i].s, CHAT, askers[i].body, alone);
        const char *got = g4_choices(askers[i].answer), *want = g4_choices(alone);
        G4_EXPECT(askers[i].status == 200 && strcmp(got, want) == 0, "%d: %s\nalone: %s", askers[i].status, got, want);
        free(askers[i].answer);
    }
    free(alone);
}

static void g4_test_parallel(const g4_server *s)
{
    enum { N = MAX_ASKERS };
    static g4_asker askers[N];
    static char bodies[N][512];
    for (int i = 0; i < N; i++) {
        askers[i] = (g4_asker) { .s = s, .body = bodies[i], .answer = malloc(TEXT) };
        snprintf(bodies[i], sizeof bodies[i],
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"tell me about %d cats\"}],\"max_tokens\":%d,"
                 "\"temperature\":1,\"seed\":%d,\"logprobs\":true,\"top_logprobs\":2}",
                 i, 20 + 7 * i, i);
    }
    g4_ask_together(askers, N);
    g4_expect_as_alone(askers, N);
}

/* ---- Connections ------------------------------------------------------------------------------------------------- */

static void g4_test_connection(const g4_server *s)
{
    static const char body[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}";
    char *text = g4_request_text("POST", "/tokenize", "", body), *answer = malloc(TEXT);
    const size_t n = strlen(text);
    char two[2048];
    int fd = g4_connect(s);
    for (size_t i = 1; i < n; i += 7) { /* in two pieces, on one connection */
        g4_send(fd, text, i);
        g4_nap(0.0005);
        g4_send(fd, text + i, n - i);
        const int status = g4_read_answer(fd, answer, 10);
        G4_EXPECT(status == 200 && strstr(answer, "\"tokens\":["), "split at %zu: %d", i, status);
    }
    snprintf(two, sizeof two, "%s%sGET /health HTTP/1.1\r\nHost: [::1]:1\r\nConnection: close\r\n\r\n", text, text);
    g4_send(fd, two, strlen(two));
    size_t len = 0;
    answer[0] = '\0';
    while (g4_receive(fd, answer, &len, 10) > 0) {
    }
    const char *second = strstr(answer + 1, "HTTP/1.1 200");
    G4_EXPECT(second != NULL && strstr(second + 1, "HTTP/1.1 200") != NULL && strstr(answer, "{\"status\":\"ok\"}"),
              "pipelined: %s", answer);
    close(fd);

    fd = g4_connect(s);
    static const char head[] = "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                               "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
    g4_send(fd, head, strlen(head));
    G4_EXPECT(g4_read_answer(fd, answer, 10) == 100, "100: %s", answer);
    char chunk[256];
    for (size_t i = 0; i < strlen(body); i++) {
        snprintf(chunk, sizeof chunk, "1\r\n%c\r\n", body[i]);
        g4_send(fd, chunk, strlen(chunk));
    }
    g4_send(fd, "0\r\n\r\n", 5);
    G4_EXPECT(g4_read_answer(fd, answer, 10) == 200, "chunks: %s", answer);
    g4_send(fd, "HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 42);
    len = 0;
    g4_receive(fd, answer, &len, 10);
    G4_EXPECT(strstr(answer, "Content-Length: 16\r\n") && strstr(answer, "\r\n\r\n")[4] == '\0', "HEAD: %s", answer);
    close(fd);
    free(text);
    free(answer);
}

/* ---- What is wrong ----------------------------------------------------------------------------------------------- */

static void g4_test_errors(const g4_server *s)
{
    static const struct {
        const char *method, *path, *fields, *body;
        int status;
        const char *says;
    } cases[] = {
        { "POST", CHAT, "", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"temperature\":\"hot\"}", 400,
          "\"param\":\"temperature\"" },
        { "POST", CHAT, "", "{\"messages\":[]}", 400, "\"param\":\"messages\"" },
        { "POST", CHAT, "", "{\"prompt\":\"x\"}", 400, "\"param\":\"messages\"" },
        { "POST", CHAT, "", "{\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"x\"}}", 400,
          "\"param\":\"messages\"" },
        { "POST", CHAT, "", "{", 400, "JSON" },
        { "POST", CHAT, "", "", 400, "JSON" },
        { "POST", CHAT, "",
          "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":"
          "{\"url\":\"/etc/passwd\"}}]}]}",
          400, "\"param\":\"messages\"" },
        { "POST", CHAT, "",
          "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":"
          "{\"url\":\"http://x/y.png\"}}]}]}",
          400, "\"param\":\"messages\"" },
        { "POST", CHAT, "",
          "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"response_format\":{\"type\":"
          "\"json_schema\",\"json_schema\":{\"schema\":3}}}",
          400, "response_format" },
        { "POST", "/v1/completions", "", "{\"prompt\":\"\"}", 400, "\"param\":\"prompt\"" },
        { "POST", "/v1/messages", "", "{\"messages\":3}", 400, "{\"type\":\"error\"" },
        { "POST", "/v1/embeddings", "", "{}", 404, "/v1/embeddings is not served here" },
        { "GET", "/nowhere", "", "", 404, "there is nothing at /nowhere" },
        { "GET", "/v1/models/other", "", "", 404, "other" },
        { "GET", "/v1/models/Tiny%20Gemma%204", "", "", 200, "\"id\":\"Tiny Gemma 4\"" },
        { "GET", CHAT, "", "", 405, "Allow: POST, OPTIONS\r\n" },
        { "PUT", "/v1/models", "", "", 405, "Allow: GET, HEAD, OPTIONS\r\n" },
        { "BREW", "/v1/models", "", "", 405, "expected GET" },
        { "OPTIONS", CHAT, "", "", 204, "Allow: " },
        { "GET", "/v1/models", "Origin: http://evil.example\r\n", "", 403, "evil.example" },
        { "GET", "/v1/models", "Origin: null\r\n", "", 403, "Origin" },
        { "GET", "/v1/models", "Origin: http://localhost\r\n", "", 200, "\"object\":\"list\"" },
        { "GET", "/v1/models", "X: y\r\nHost: localhost\r\n", "", 400, "twice" },
        { "GET", "/v1/models", "", "", 200, "\"object\":\"list\"" },
        { "GET", "/", "", "", 200, "text/html" },
    };
    char *answer = malloc(TEXT);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int status = g4_ask_as(s, cases[i].method, cases[i].path, cases[i].fields, cases[i].body, answer);
        G4_EXPECT(status == cases[i].status && strstr(answer, cases[i].says) != NULL, "%s %s %s: %d, %s",
                  cases[i].method, cases[i].path, cases[i].body, status, answer);
    }
    static const struct {
        const char *text;
        int status;
    } raw[] = {
        { "GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403 },
        { "GET /v1/models HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n", 403 },
        { "GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:99\r\n\r\n", 200 },
        { "GET /v1/models HTTP/1.1\r\nHost: LocalHost\r\n\r\n", 200 },
        { "GET /v1/models HTTP/1.1\r\nHost: [::1]:\r\n\r\n", 200 },
        { "GET /v1/models HTTP/1.1\r\nHost: [::1]evil.example\r\n\r\n", 403 },
        { "GET /v1/models HTTP/1.1\r\nHost: localhost:80.evil.example\r\n\r\n", 403 },
        { "GET /v1/models HTTP/1.1\r\nHost: [localhost]\r\n\r\n", 403 },
        { "GET /v1/models HTTP/1.1\r\nHost: [::1\r\n\r\n", 403 },
        { "GET /v1/models HTTP/1.1\r\nHost: \r\n\r\n", 403 },
        { "POST " CHAT " HTTP/1.1\r\nHost: [::1]\r\n\r\n", 411 },
        { "POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415 },
        { "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: Application/JSON; charset=UTF-8\r\n"
          "Content-Length: 14\r\n\r\n{\"prompt\":\"x\"}",
          200 },
        { "POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n{}", 413 },
        { "POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", 400 },
        { "nonsense\r\n\r\n", 400 }
    };
    for (size_t i = 0; i < sizeof raw / sizeof raw[0]; i++) {
        const int fd = g4_connect(s);
        g4_send(fd, raw[i].text, strlen(raw[i].text));
        const int status = g4_read_answer(fd, answer, 10);
        G4_EXPECT(status == raw[i].status, "%s: %d", raw[i].text, status);
        close(fd);
    }
    free(answer);
}

/* ---- Clients that go --------------------------------------------------------------------------------------------- */

/* Seconds until the server is seen to have noticed: half of one on an idle machine, and far fewer than answers take. */
#define NOTICED 2.5

/* `s` answers one at a time, slowly. */
static void g4_test_gone(const g4_server *s)
{
    static const char *const bodies[] = { "{" LONG_ANSWER "}", "{" LONG_ANSWER ",\"stream\":true}" };
    for (int i = 0; i < 2; i++) {
        const long gone = g4_metric(s, "gone_total");
        int fd = g4_begin(s, bodies[i], "running", 1), waiting = g4_begin(s, bodies[i], "waiting", 1);
        close(waiting);
        double seconds = g4_until(s, "waiting", 0, 3);
        G4_EXPECT(seconds < NOTICED, "one that waits: noticed after %.2f s", seconds);
        G4_EXPECT(g4_metric(s, "running") == 1, "the other goes on");
        close(fd);
        seconds = g4_until(s, "running", 0, 3);
        G4_EXPECT(seconds < NOTICED, "%s: noticed after %.2f s", i ? "streamed" : "whole", seconds);
        g4_until(s, "gone_total", gone + 2, 1);
        G4_EXPECT(g4_metric(s, "gone_total") == gone + 2, "both are counted");
    }
    /* while a long prompt is read */
    char *body = malloc(60000), *at = body;
    at += sprintf(body, "{\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 1900; i++) at += sprintf(at, "word%d ", i % 7); /* nearly all of the context */
    sprintf(at, "\"}]}");
    const long gone = g4_metric(s, "gone_total");
    const int fd = g4_begin(s, body, "running", 1);
    close(fd);
    const double seconds = g4_until(s, "running", 0, 3);
    G4_EXPECT(seconds < NOTICED, "a prompt: noticed after %.2f s", seconds);
    g4_until(s, "gone_total", gone + 1, 1);
    G4_EXPECT(g4_metric(s, "gone_total") == gone + 1, "it is counted");
    free(body);
}

/* A picture of `side` pixels in the request, in memory to be freed. */
static char *g4_picture_body(int side)
{
    static const char code[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const size_t n = (size_t)(3 * side * side) + 18; /* a multiple of 3, with its header */
    unsigned char *ppm = calloc(1, n);
    char *body = malloc(2 * n + 512), *at = body;
    const int head = snprintf((char *)ppm, n, "P6\n%06d %d\n255\n", side, side);
    for (size_t i = (size_t)head; i < n; i++) ppm[i] = (unsigned char)(i * 7 + i / 999);
    at += sprintf(at, "{\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
                      "\"image_url\":{\"url\":\"data:image/x-portable-pixmap;base64,");
    for (size_t i = 0; i + 3 <= n; i += 3) {
        const unsigned bits = (unsigned)(ppm[i] << 16 | ppm[i + 1] << 8 | ppm[i + 2]);
        for (int k = 18; k >= 0; k -= 6) *at++ = code[bits >> k & 63];
    }
    sprintf(at, "\"}}]}]}");
    free(ppm);
    return body;
}

/* While a picture is encoded, which is done on the connection's own thread. */
static void g4_test_gone_in_picture(const g4_server *s)
{
    char *body = g4_picture_body(480), *text = g4_request_text("POST", CHAT, "", body);
    const int fd = g4_connect(s);
    g4_send(fd, text, strlen(text));
    g4_nap(0.3);
    G4_EXPECT(g4_metric(s, "connections") == 2, "it is read");
    close(fd);
    const double seconds = g4_until(s, "connections", 1, 5);
    G4_EXPECT(seconds < NOTICED, "a picture: noticed after %.2f s", seconds);
    free(body);
    free(text);
}

/* One that does not read its stream holds nobody up, and is dropped. */
static void g4_test_slow_reader(const g4_server *s)
{
    static const char body[] = "{" LONG_ANSWER ",\"stream\":true,\"logprobs\":true,\"top_logprobs\":20}";
    char *text = g4_request_text("POST", CHAT, "", body), *answer = malloc(TEXT);
    const struct sockaddr_in a = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)s->port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    const int fd = socket(AF_INET, SOCK_STREAM, 0), little = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
    G4_EXPECT(connect(fd, (const struct sockaddr *)&a, sizeof a) == 0, "connected");
    g4_send(fd, text, strlen(text));
    g4_until(s, "running", 1, 5);
    const double began = g4_now();
    static const char other[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":3}";
    G4_EXPECT(g4_ask(s, CHAT, other, answer) == 200, "%s", answer);
    G4_EXPECT(g4_now() - began < 4, "another was answered after %.2f s", g4_now() - began);
    const double seconds = g4_until(s, "running", 0, 15), closing = g4_until(s, "connections", 1, 15);
    G4_EXPECT(seconds + closing < 15, "dropped after %.2f s, closed after %.2f s", seconds, closing);
    close(fd);
    free(text);
    free(answer);
}

/* ---- Conversations ----------------------------------------------------------------------------------------------- */

static int g4_usage(const char *answer, const char *name)
{
    const char *at = strstr(answer, name);
    return at != NULL ? atoi(at + strlen(name)) : -1;
}

/* A query about the conversation takes nothing from it, with one place and with several. */
static void g4_test_title(const g4_server *s, const char *topic)
{
    static char first[30000], second[36000];
    char *answer = malloc(TEXT), *at = first;
    at += sprintf(at, "{\"temperature\":0,\"max_tokens\":8,\"messages\":[{\"role\":\"user\",\"content\":\"%s", topic);
    for (int i = 0; i < 400; i++) at += sprintf(at, " and %d more", i);
    sprintf(at, "\"}");
    snprintf(second, sizeof second, "%s]}", first);
    G4_EXPECT(g4_ask(s, CHAT, second, answer) == 200, "%s", answer);
    const int n = g4_usage(answer, "\"prompt_tokens\":");
    char text[4096];
    const char *content = strstr(answer, "\"content\":\"") + strlen("\"content\":\"");
    snprintf(text, sizeof text, "%.*s", (int)strcspn(content, "\""), content);
    static const char title[] = "{\"max_tokens\":4,\"messages\":[{\"role\":\"user\",\"content\":\"A title, please\"}]}";
    for (int i = 0; i < 3; i++) G4_EXPECT(g4_ask(s, CHAT, title, answer) == 200, "%s", answer);
    snprintf(second, sizeof second,
             "%s,{\"role\":\"assistant\",\"content\":\"%s\"},{\"role\":\"user\",\"content\":\"go on\"}]}", first, text);
    G4_EXPECT(g4_ask(s, CHAT, second, answer) == 200, "%s", answer);
    const int cached = g4_usage(answer, "\"cached_tokens\":");
    G4_EXPECT(n > 1000 && cached >= n, "%d tokens, of the second turn %d are reused", n, cached);
    free(answer);
}

/* A call that a client has read and written again: the tokens that the model wrote are found again, whatever the order
 * of its members, its blanks, and the forms of numbers and letters. */
static void g4_test_calls(const g4_server *s)
{
    static const char tools[] = "\"temperature\":0,\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","
                                "\"parameters\":{\"type\":\"object\","
                                "\"properties\":{\"zeta\":{\"enum\":[\"y\\u00e9 / "
                                "1.50\"]},\"n\":{\"enum\":[1.5]},\"l\":{\"enum\":[[10,{\"b\":true,\"a\":null}]]}},"
                                "\"required\":[\"zeta\",\"n\",\"l\"],\"additionalProperties\":false}}}]";
    static const char *const forms[] = {
        "{\\\"zeta\\\": \\\"y\u00e9 / 1.50\\\", \\\"n\\\": 1.5, \\\"l\\\": [10, {\\\"b\\\": true, \\\"a\\\": null}]}",
        "{\\\"l\\\":[10.0,{\\\"a\\\":null,\\\"b\\\":true}],\\\"n\\\":15e-1,\\\"zeta\\\":\\\"y\\\\u00e9 \\\\/ 1.50\\\"}",
        ("\\n{ \\\"n\\\" : 1.50 ,\\\"zeta\\\":\\\"\\\\u0079\u00e9 / "
         "1.50\\\",\\\"l\\\":[1e1,{\\\"b\\\":true,\\\"a\\\":null}]}\\n")
    };
    char *answer = malloc(TEXT), body[4096];
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        static const char say[] = "{%s,\"messages\":[{\"role\":\"user\",\"content\":\"number "
                                  "%zu\"}%s%s%s],\"tool_choice\":\"%s\",\"max_tokens\":%d}";
        snprintf(body, sizeof body, say, tools, i, "", "", "", "required", 300);
        G4_EXPECT(g4_ask(s, CHAT, body, answer) == 200 && strstr(answer, "tool_calls") != NULL, "%s", answer);
        const int held = g4_usage(answer, "\"prompt_tokens\":") + g4_usage(answer, "\"completion_tokens\":");
        snprintf(body, sizeof body, say, tools, i,
                 ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\","
                 "\"function\":{\"name\":\"f\","
                 "\"arguments\":\"",
                 forms[i], "\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"done\"}", "auto", 2);
        G4_EXPECT(g4_ask(s, CHAT, body, answer) == 200, "%s", answer);
        const int cached = g4_usage(answer, "\"cached_tokens\":");
        G4_EXPECT(cached >= held - 1, "%s: %d tokens were there, %d are reused", forms[i], held, cached);
    }
    free(answer);
}

/* Clients that come at the same moment with a common half: it is read once, and each has its answer as if alone. */
static void g4_test_common(const g4_server *s, const char *topic)
{
    enum { N = 4 };
    static g4_asker askers[N];
    static char bodies[N][16000];
    int n_prompt = 0, n_read = 0;
    for (int i = 0; i < N; i++) {
        char *at = bodies[i];
        at += sprintf(at,
                      "{\"temperature\":1,\"seed\":%d,\"max_tokens\":12,\"logprobs\":true,\"messages\":[{\"role\":"
                      "\"user\",\"content\":\"%s",
                      i, topic);
        for (int k = 0; k < 150; k++) at += sprintf(at, " and %d more", k);
        for (int k = 0; k < 150; k++) at += sprintf(at, " or %d %c", k, 'a' + i);
        sprintf(at, "\"}]}");
        askers[i] = (g4_asker) { .s = s, .body = bodies[i], .answer = malloc(TEXT) };
    }
    g4_ask_together(askers, N);
    for (int i = 0; i < N; i++) {
        const int n = g4_usage(askers[i].answer, "\"prompt_tokens\":");
        n_prompt += n;
        n_read += n - g4_usage(askers[i].answer, "\"cached_tokens\":");
    }
    G4_EXPECT(n_prompt > 2000 && n_read < n_prompt * 11 / 16, "%s: %d of %d tokens were read", topic, n_read, n_prompt);
    g4_expect_as_alone(askers, N);
}

/* One that waits for what another reads may go; where that one goes, the other reads it itself. */
static void g4_test_common_gone(const g4_server *s)
{
    char *body = malloc(60000), *at = body, *answer = malloc(TEXT);
    at += sprintf(at, "{\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 1500; i++) at += sprintf(at, "word%d ", i % 7);
    sprintf(at, "\"}]}");
    const int reads = g4_begin(s, body, "running", 1), waits = g4_begin(s, body, "running", 2);
    const int goes = g4_begin(s, body, "running", 3);
    close(goes);
    const double seconds = g4_until(s, "running", 2, 5);
    G4_EXPECT(seconds < NOTICED, "one that waits for another: noticed after %.2f s", seconds);
    close(reads);
    const int status = g4_read_answer(waits, answer, 30);
    G4_EXPECT(status == 200, "%d: %s", status, answer);
    close(waits);
    free(body);
    free(answer);
}

int main(void)
{
    const char *const usual[] = { "--max-queue", "100", NULL };
    const char *const slow[] = { "--parallel", "1", "--isa", "scalar", "-t", "1", "--image-tokens", "1120", NULL };
    const char *const four[] = { G4_SLOWLY, NULL };
    const char *const one[] = { "--parallel", "1", NULL };
    signal(SIGPIPE, SIG_IGN);
    g4_server s = g4_serve(usual);
    G4_EXPECT(s.port > 0, "the server has begun");
    if (s.port == 0) return g4_test_end();
    const int late = g4_connect(&s); /* a head that does not come */
    g4_send(late, "GET /health HT", 14);
    g4_test_alone(&s);
    g4_test_streams(&s);
    g4_test_sound(&s);
    g4_test_parallel(&s);
    g4_test_connection(&s);
    g4_test_errors(&s);
    g4_test_title(&s, "four at a time");
    g4_test_calls(&s);
    char *answer = malloc(TEXT);
    G4_EXPECT(g4_read_answer(late, answer, 12) == 408, "%s", answer);
    close(late);
    free(answer);
    g4_test_slow_reader(&s);
    G4_EXPECT(g4_stop(&s) == 0, "the end");
    s = g4_serve(slow);
    g4_test_gone(&s);
    g4_test_gone_in_picture(&s);
    G4_EXPECT(g4_stop(&s) == 0, "the end");
    s = g4_serve(four);
    for (int i = 0; i < 3; i++) g4_test_common(&s, i == 0 ? "slowly" : i == 1 ? "once more" : "and again");
    g4_test_common_gone(&s);
    G4_EXPECT(g4_stop(&s) == 0, "the end");
    s = g4_serve(one);
    g4_test_title(&s, "one at a time");
    G4_EXPECT(g4_stop(&s) == 0, "the end");
    return g4_test_end();
}
