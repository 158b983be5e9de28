/* test_serve_access.c - gemma4 serve: who may ask, texts that go on, and how it ends. */
#include "serve_client.h"
#include "test.h"

/* ---- Texts that go on -------------------------------------------------------------------------------------------- */

/* What stands behind each `key` of choice `index`, one after another, up to `end`. */
static void g4_gather(const char *text, int index, const char *key, const char *end, char *out)
{
    char choice[32];
    snprintf(choice, sizeof choice, "{\"index\":%d,", index);
    for (; (text = strstr(text, choice)) != NULL; text++) {
        const char *from = strstr(text, key), *to = from != NULL ? strstr(from + strlen(key), end) : NULL;
        const char *next = strstr(text + 1, "{\"index\":");
        if (to == NULL || (next != NULL && next < from)) continue;
        from += strlen(key);
        if (to > from && out[0] != '\0' && *from != '"' && key[strlen(key) - 1] == '[') strcat(out, ",");
        strncat(out, from, (size_t)(to - from));
    }
}

/* A stream of several choices says what one object says, text and probabilities, and has one end. */
static void g4_test_streamed(const g4_server *s, const char *what)
{
    static const char *const parts[][2] = { { "\"text\":\"", "\",\"logprobs\":" },
                                            { "\"token_logprobs\":[", "]" },
                                            { "\"finish_reason\":\"", "\"" } };
    char body[512], *whole = malloc(TEXT), *stream = malloc(TEXT), *x = malloc(TEXT), *y = malloc(TEXT);
    snprintf(body, sizeof body, "{%s,\"max_tokens\":4,\"temperature\":0,\"logprobs\":1}", what);
    G4_EXPECT(g4_ask(s, "/v1/completions", body, whole) == 200, "%s", whole);
    snprintf(body, sizeof body,
             "{%s,\"max_tokens\":4,\"temperature\":0,\"logprobs\":1,\"stream\":true,\"stream_options\":{\"include_"
             "usage\":true}}",
             what);
    G4_EXPECT(g4_ask(s, "/v1/completions", body, stream) == 200, "%s", stream);
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 3; k++) {
            x[0] = y[0] = '\0';
            g4_gather(whole, i, parts[k][0], parts[k][1], x);
            g4_gather(stream, i, parts[k][0], parts[k][1], y);
            G4_EXPECT((i > 0 || x[0] != '\0') && strcmp(x, y) == 0, "%s, choice %d: %s\nstreamed: %s\n%s", what, i, x,
                      y, stream);
        }
    }
    const char *counts = strstr(whole, "\"usage\":{"), *end = strstr(stream, "[DONE]");
    snprintf(body, sizeof body, "%.*s,", counts != NULL ? (int)strcspn(counts, ",") : 0, counts);
    G4_EXPECT(strstr(stream, body) != NULL && end != NULL && strstr(end + 1, "[DONE]") == NULL, "%s: %s", body, stream);
    free(whole);
    free(stream);
    free(x);
    free(y);
}

static void g4_test_completions(const g4_server *s)
{
    static const struct {
        const char *body;
        int status;
        const char *says;
    } cases[] = {
        { "{\"prompt\":\"once upon\",\"max_tokens\":2,\"temperature\":0}", 200, "{\"index\":0,\"text\":\" the" },
        { "{\"prompt\":\"once upon\",\"max_tokens\":2,\"temperature\":0,\"echo\":true,\"logprobs\":1}", 200,
          "\"text\":\"once upon the" },
        { "{\"prompt\":[2,100,101],\"max_tokens\":1,\"echo\":true,\"logprobs\":0}", 200, "\"token_logprobs\":[null,-" },
        { "{\"prompt\":[\"once upon\",\"the\"],\"max_tokens\":2,\"temperature\":0}", 200,
          "{\"index\":0,\"text\":\" the" },
        { "{\"prompt\":[\"the\",\"once upon\"],\"max_tokens\":2,\"temperature\":0}", 200,
          "{\"index\":1,\"text\":\" the" },
        { "{\"prompt\":[[2,100],[101]],\"max_tokens\":2}", 200, "{\"index\":1,\"text\":" },
        { "{\"prompt\":[\"x],\\\"usage\\\":{\",\"y\"],\"max_tokens\":1,\"echo\":true}", 200,
          "\"text\":\"x],\\\"usage" },
        { "{\"prompt\":[2,100,99999]}", 400, "\"param\":\"prompt\"" },
        { "{\"prompt\":[]}", 400, "\"param\":\"prompt\"" },
        { "{\"prompt\":[\"a\",\"\"],\"max_tokens\":1}", 400, "\"param\":\"prompt\"" },
        { "{\"prompt\":\"a\",\"echo\":true,\"response_format\":{\"type\":\"json_object\"}}", 400,
          "\"param\":\"echo\"" },
        { "{\"messages\":[]}", 400, "\"param\":\"prompt\"" },
    };
    char *answer = malloc(TEXT);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int status = g4_ask(s, "/v1/completions", cases[i].body, answer);
        G4_EXPECT(status == cases[i].status && strstr(answer, cases[i].says) != NULL, "%s: %d, %s", cases[i].body,
                  status, answer);
    }
    static const char *const several[] = { "\"prompt\":[\"once upon\",\"the\",[2,100]]",
                                           "\"prompt\":[\"once \u4e00\",\"the\"],\"echo\":true",
                                           "\"prompt\":\"once upon\",\"echo\":true" };
    for (size_t i = 0; i < sizeof several / sizeof several[0]; i++) g4_test_streamed(s, several[i]);
    g4_ask(s, "/v1/completions", "{\"prompt\":[\"a\",\"\"],\"stream\":true,\"max_tokens\":1}", answer);
    G4_EXPECT(strstr(answer, "\"index\":0") && strstr(answer, "data: {\"error\":{") && !strstr(answer, "[DONE]") &&
                  strstr(answer, "\r\n0\r\n\r\n"),
              "the second is wrong: %s", answer);
    /* what is repeated has the probabilities that it has when it is generated */
    static const char made[] = "{\"prompt\":[2,100,101],\"max_tokens\":3,\"temperature\":0,\"logprobs\":0}";
    char token[3][32], body[256];
    G4_EXPECT(g4_ask(s, "/v1/completions", made, answer) == 200, "%s", answer);
    const char *at = strstr(answer, "\"token_logprobs\":[");
    at = at != NULL ? at + strlen("\"token_logprobs\":[") : "0,0,0]";
    for (int i = 0; i < 3; i++, at += strcspn(at, ",]") + 1)
        snprintf(token[i], sizeof token[i], "%.*s", (int)strcspn(at, ",]"), at);
    static const char again[] =
        "{\"prompt\":[2,100,101],\"max_tokens\":3,\"temperature\":0,\"logprobs\":0,\"echo\":true}";
    snprintf(body, sizeof body, ",%s,%s,%s]", token[0], token[1], token[2]);
    G4_EXPECT(g4_ask(s, "/v1/completions", again, answer) == 200 && strstr(answer, body) != NULL, "%s in %s", body,
              answer);
    free(answer);
}

/* ---- Tokens ------------------------------------------------------------------------------------------------------ */

/* In the forms of vLLM and of llama.cpp. */
static void g4_test_tokens(const g4_server *s)
{
    static const struct {
        const char *path, *body;
        int status;
        const char *says;
    } cases[] = {
        { "/tokenize", "{\"prompt\":\"once upon\"}", 200, "\"tokens\":[2," },
        { "/tokenize", "{\"prompt\":\"\",\"add_special_tokens\":false}", 200, "\"tokens\":[]}" },
        { "/tokenize", "{\"prompt\":\"<bos>\",\"add_special_tokens\":false}", 200, "\"tokens\":[2]" },
        { "/tokenize", "{\"content\":\"<bos>\"}", 200, "\"tokens\":[2]" },
        { "/tokenize", "{\"content\":\"<bos>\",\"add_special\":true}", 200, "\"tokens\":[2,2]" },
        { "/tokenize", "{\"content\":\"\",\"add_special\":true,\"with_pieces\":true}", 200,
          "\"tokens\":[{\"id\":2,\"piece\":\"<bos>\"}]" },
        { "/tokenize", "{\"content\":\"\u00ff\\u4e00\",\"with_pieces\":true}", 200, "\"piece\":[" },
        { "/tokenize", "{\"prompt\":\"\",\"return_token_strs\":true}", 200,
          "\"tokens\":[2],\"token_strs\":[\"<bos>\"]}" },
        { "/tokenize", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", 200, "\"tokens\":[2," },
        { "/tokenize", "{\"tokens\":[2]}", 400, "\"param\":\"tokens\"" },
        { "/tokenize", "{\"content\":3}", 400, "\"param\":\"content\"" },
        { "/tokenize", "{\"content\":\"x\",\"prompt\":\"y\"}", 400, "\"param\":\"content\"" },
        { "/tokenize", "{\"content\":\"x\",\"with_pieces\":1}", 400, "\"param\":\"with_pieces\"" },
        { "/tokenize", "{}", 400, "\"param\":\"prompt\"" },
        { "/detokenize", "{\"tokens\":[2]}", 200, "{\"prompt\":\"<bos>\",\"content\":\"<bos>\"}" },
        { "/detokenize", "{\"tokens\":[]}", 200, "{\"prompt\":\"\",\"content\":\"\"}" },
        { "/detokenize", "{\"tokens\":[99999]}", 400, "\"param\":\"tokens\"" },
        { "/detokenize", "{\"tokens\":[-1]}", 400, "\"param\":\"tokens\"" },
        { "/detokenize", "{\"tokens\":\"x\"}", 400, "\"param\":\"tokens\"" },
        { "/detokenize", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", 400, "\"param\":\"tokens\"" },
        { "/detokenize", "{\"prompt\":\"x\"}", 400, "\"param\":\"tokens\"" },
    };
    char *answer = malloc(TEXT), body[512];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int status = g4_ask(s, cases[i].path, cases[i].body, answer);
        G4_EXPECT(status == cases[i].status && strstr(answer, cases[i].says) != NULL, "%s %s: %d, %s", cases[i].path,
                  cases[i].body, status, answer);
    }
    /* there and back */
    G4_EXPECT(g4_ask(s, "/tokenize", "{\"content\":\"Caf\u00e9, \\u4e00\"}", answer) == 200, "%s", answer);
    const char *ids = strstr(answer, "\"tokens\":[");
    snprintf(body, sizeof body, "{%s", ids != NULL ? ids : "}");
    G4_EXPECT(g4_ask(s, "/detokenize", body, answer) == 200 &&
                  strstr(answer, "\"content\":\"Caf\u00e9, \u4e00\"}") != NULL,
              "%s: %s", body, answer);
    G4_EXPECT(g4_ask_as(s, "GET", "/tokenizer_info", "", "", answer) == 200 &&
                  strstr(answer, "\"bos_token\":\"<bos>\",\"eos_token\":\"<") != NULL,
              "%s", answer);
    free(answer);
}

/* ---- Who may ask ------------------------------------------------------------------------------------------------- */

static void g4_test_keys(void)
{
    char path[] = "/tmp/g4-keys-XXXXXX", *answer = malloc(TEXT);
    const int file = mkstemp(path);
    static const char keys[] = "\xef\xbb\xbf# of us\n\nsesame\r\n  other-key \n\t\nlast";
    G4_EXPECT(write(file, keys, strlen(keys)) == (ssize_t)strlen(keys), "the keys");
    close(file);
    const char *const more[] = { "--api-key-file", path, "--cors", "http://page.example", "--max-body", "2K", NULL };
    const g4_server s = g4_serve(more);
    static const struct {
        const char *path, *fields;
        int status;
    } cases[] = { { "/v1/models", "", 401 },
                  { "/v1/models", "Authorization: Bearer wrong!\r\n", 401 },
                  { "/v1/models", "Authorization: Bearer sesam\r\n", 401 },
                  { "/v1/models", "Authorization: Bearer sesamesesame\r\n", 401 },
                  { "/v1/models", "Authorization: Bearer \r\n", 401 },
                  { "/v1/models", "Authorization: sesame\r\n", 401 },
                  { "/v1/models", "Authorization: Bearer sesame\r\n", 200 },
                  { "/v1/models", "X-Api-Key: other-key\r\n", 200 },
                  { "/v1/models", "Authorization: bearer sesame\r\n", 200 },
                  { "/v1/models", "X-Api-Key: last\r\n", 200 },
                  { "/v1/models", "X-Api-Key: # of us\r\n", 401 },
                  { "/v1/models", "X-Api-Key: \xef\xbb\xbf# of us\r\n", 401 },
                  { "/metrics", "", 401 },
                  { "/health", "", 200 },
                  { "/v1/models", "X-Api-Key: sesame\r\nOrigin: http://page.example\r\n", 200 },
                  { "/v1/models", "X-Api-Key: sesame\r\nOrigin: http://page.example.evil\r\n", 403 } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int status = g4_ask_as(&s, "GET", cases[i].path, cases[i].fields, "", answer);
        G4_EXPECT(status == cases[i].status, "%s %s: %d", cases[i].path, cases[i].fields, status);
    }
    G4_EXPECT(g4_ask_as(&s, "OPTIONS", CHAT, "Origin: http://page.example\r\n", "", answer) == 204, "%s", answer);
    G4_EXPECT(strstr(answer, "Access-Control-Allow-Origin: http://page.example\r\n") != NULL, "%s", answer);
    static const char asked[] =
        "Origin: http://page.example\r\nAccess-Control-Request-Headers: x-stainless-os,x-own\r\n";
    G4_EXPECT(g4_ask_as(&s, "OPTIONS", CHAT, asked, "", answer) == 204 &&
                  strstr(answer, "Access-Control-Allow-Headers: x-stainless-os,x-own\r\n") != NULL,
              "%s", answer);
    G4_EXPECT(g4_ask_as(&s, "OPTIONS", CHAT, "Access-Control-Request-Headers: x-own\r\n", "", answer) == 204 &&
                  strstr(answer, "Access-Control") == NULL,
              "%s", answer);
    char *body = calloc(1, 4000);
    memset(body, ' ', 3000);
    G4_EXPECT(g4_ask_as(&s, "POST", CHAT, "X-Api-Key: sesame\r\n", body, answer) == 413, "%s", answer);
    free(body);
    G4_EXPECT(g4_stop(&s) == 0, "the end");
    unlink(path);
    free(answer);
}

/* It does not begin, and its status is that. */
static int g4_refuses(const char *option, const char *value, int status)
{
    const char *const more[] = { option, value, NULL };
    const g4_server s = g4_serve(more);
    if (s.port > 0) g4_stop(&s);
    return s.port == 0 && g4_wait(s.pid) == status;
}

/* Files of keys that would let nobody in, or everybody, and origins that no browser sends: it does not begin. */
static void g4_test_wrong_options(void)
{
    static const struct {
        const char *text;
        size_t len;
    } files[] = { { "", 0 }, { "# only\n\n", 8 }, { "s\0e\0\n\0", 6 }, { "sesame\0\n", 8 } };
    static const char *const origins[] = {
        "", "page.example", "https://", "https://page.example/", "https://a,https://b", "://x"
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[] = "/tmp/g4-keys-XXXXXX";
        const int file = mkstemp(path);
        G4_EXPECT(write(file, files[i].text, files[i].len) == (ssize_t)files[i].len, "the keys");
        close(file);
        G4_EXPECT(g4_refuses("--api-key-file", path, 1), "keys %zu", i);
        unlink(path);
    }
    G4_EXPECT(g4_refuses("--api-key-file", "/tmp", 1) && g4_refuses("--api-key-file", "/tmp/no/file", 1), "no file");
    for (size_t i = 0; i < sizeof origins / sizeof origins[0]; i++)
        G4_EXPECT(g4_refuses("--cors", origins[i], 2), "--cors %s", origins[i]);
}

/* ---- The end ----------------------------------------------------------------------------------------------------- */

static void g4_test_end_of_server(void)
{
    char trace[] = "/tmp/g4-trace-XXXXXX", moved[64], *answer = malloc(TEXT);
    close(mkstemp(trace));
    snprintf(moved, sizeof moved, "%s.1", trace);
    const char *const more[] = { "--trace", trace,         "--isa", "scalar",     "-t", "1", "--timeout",
                                 "1",       "--max-queue", "0",     "--parallel", "1",  NULL };
    g4_server s = g4_serve(more);
    G4_EXPECT(s.port > 0, "the server has begun");
    rename(trace, moved);
    kill(s.pid, SIGHUP);
    for (double until = g4_now() + 5; access(trace, F_OK) != 0 && g4_now() < until;) g4_nap(0.01);
    static const char body[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"\\u001b[31m\\nx\"}],\"max_tokens\":3}";
    G4_EXPECT(g4_ask(&s, CHAT, body, answer) == 200, "%s", answer);
    answer[0] = '\0'; /* the line comes behind the answer */
    for (double until = g4_now() + 5; strchr(answer, '\n') == NULL && g4_now() < until; g4_nap(0.01)) {
        FILE *f = fopen(trace, "r");
        answer[f != NULL ? fread(answer, 1, TEXT - 1, f) : 0] = '\0';
        if (f != NULL) fclose(f);
    }
    G4_EXPECT(strstr(answer, "\"outcome\":\"answered\"") && strchr(answer, '\033') == NULL &&
                  strchr(answer, '\n') == strrchr(answer, '\n'),
              "the trace: %s", answer);
    /* an answer that takes too long ends, cut; meanwhile nobody fits in */
    const int fd = g4_begin(&s, "{" LONG_ANSWER "}", "running", 1);
    G4_EXPECT(g4_ask(&s, CHAT, body, answer) == 503 && strstr(answer, "Retry-After: "), "%s", answer);
    G4_EXPECT(g4_read_answer(fd, answer, 10) == 200 && strstr(answer, "\"finish_reason\":\"length\""), "%s", answer);
    close(fd);
    /* several prompts have the time of one request: whole and streamed */
    static const char several[] =
        "{\"prompt\":[\"once\",\"twice\",\"often\"],\"max_tokens\":3900,\"temperature\":4,\"top_k\":0,\"top_p\":1,"
        "\"presence_penalty\":1,\"logit_bias\":{\"1\":-1000,\"16\":-1000,\"106\":-1000}%s}";
    char prompts[512];
    for (int streams = 0; streams < 2; streams++) {
        const double began = g4_now();
        snprintf(prompts, sizeof prompts, several, streams ? ",\"stream\":true" : "");
        const int status = g4_ask(&s, "/v1/completions", prompts, answer);
        G4_EXPECT(status == (streams ? 200 : 503) && strstr(answer, "--timeout") != NULL, "%d: %.300s", status, answer);
        G4_EXPECT(g4_now() - began < 2.7, "after %.2f s", g4_now() - began);
    }
    /* asked to stop, it finishes what it has begun */
    const int last = g4_begin(&s, "{" LONG_ANSWER ",\"stream\":true}", "running", 1), idle = g4_connect(&s);
    kill(s.pid, SIGTERM);
    g4_nap(0.1);
    G4_EXPECT(g4_connect(&s) < 0, "no new connection");
    G4_EXPECT(g4_read_answer(last, answer, 10) == 200 && strstr(answer, "[DONE]"), "the last answer: %.200s", answer);
    close(last);
    G4_EXPECT(g4_wait(s.pid) == 0, "the end");
    close(idle);
    s = g4_serve(more);
    const int cut = g4_begin(&s, "{" LONG_ANSWER ",\"stream\":true}", "running", 1);
    kill(s.pid, SIGTERM);
    g4_nap(0.05);
    kill(s.pid, SIGINT);
    const double began = g4_now();
    G4_EXPECT(g4_wait(s.pid) == 130 && g4_now() - began < 2, "asked twice: after %.2f s", g4_now() - began);
    close(cut);
    unlink(trace);
    unlink(moved);
    free(answer);
}

/* A trace that cannot be written, for want of room, costs no answer. */
static void g4_test_full_disk(void)
{
    const char *const more[] = { "--trace", "/dev/full", NULL };
    char *answer = malloc(TEXT);
    const g4_server s = g4_serve(more);
    for (int i = 0; i < 3 && s.port > 0; i++)
        G4_EXPECT(g4_ask(&s, CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":2}", answer) ==
                      200,
                  "%s", answer);
    G4_EXPECT(s.port > 0 && g4_stop(&s) == 0, "the end");
    free(answer);
}

/* Asked to stop while one prompt is read, another request waits, and a third connection has said nothing yet: the first
 * two are answered. */
static void g4_test_end_in_prompt(void)
{
    const char *const more[] = { G4_SLOWLY, "--parallel", "1", NULL };
    char *body = malloc(60000), *at = body, *answer = malloc(TEXT);
    const g4_server s = g4_serve(more);
    at += sprintf(at, "{\"max_tokens\":2,\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 700; i++) at += sprintf(at, "word%d ", i % 7);
    sprintf(at, "\"}]}");
    const int reads = g4_begin(&s, body, "running", 1);
    const int waits =
                  g4_begin(&s, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":2}", "waiting", 1),
              idle = g4_connect(&s);
    kill(s.pid, SIGTERM);
    G4_EXPECT(g4_read_answer(reads, answer, 20) == 200, "a prompt: %s", answer);
    G4_EXPECT(g4_read_answer(waits, answer, 20) == 200, "in the queue: %s", answer);
    G4_EXPECT(g4_wait(s.pid) == 0, "the end");
    close(reads);
    close(waits);
    close(idle);
    free(body);
    free(answer);
}

int main(void)
{
    const char *const usual[] = { "--parallel", "2", NULL }, *const outside[] = { "--host", "0.0.0.0", NULL };
    signal(SIGPIPE, SIG_IGN);
    g4_server s = g4_serve(outside);
    G4_EXPECT(s.port == 0 && g4_wait(s.pid) == 2, "without a key no other machine is let in");
    s = g4_serve(usual);
    G4_EXPECT(s.port > 0, "the server has begun");
    if (s.port == 0) return g4_test_end();
    g4_test_completions(&s);
    g4_test_tokens(&s);
    G4_EXPECT(g4_stop(&s) == 0, "the end");
    g4_test_keys();
    g4_test_wrong_options();
    g4_test_end_of_server();
    g4_test_end_in_prompt();
    g4_test_full_disk();
    return g4_test_end();
}
