/* test_serve_complaints.c - gemma4 serve: what users of other servers complain about, and is tested nowhere else. A
 * client that leaves while the model thinks; a long prompt beside a stream; thoughts and calls, in answers and streams
 * of every dialect. */
#include "serve_client.h"
#include "test.h"

/* Of the bundled model: what ends a turn, a thought or a call, and what begins one. Without them an answer has no end,
 * and stays the text or the thought that it is. */
#define UNENDING                                                                                                       \
    "\"temperature\":4,\"top_k\":0,\"top_p\":1,\"presence_penalty\":1,\"seed\":1,\"max_tokens\":3800,\"logit_bias\":{" \
    "\"1\":-1000,\"5\":-1000,\"6\":-1000,\"7\":-1000,\"8\":-1000,\"9\":-1000,\"10\":-1000,\"11\":-1000,\"12\":-1000,"  \
    "\"13\":-1000,\"14\":-1000,\"15\":-1000,\"16\":-1000,\"106\":-1000}"
#define TOOLS                                                                                                          \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_time\",\"parameters\":{\"type\":\"object\","       \
    "\"properties\":{\"city\":{\"type\":\"string\"}},\"required\":[\"city\"]}}}]"
/* Behind the result of a tool, with thinking on, the prompt ends in a thought that is open. */
#define AFTER_RESULT                                                                                                   \
    "\"messages\":[{\"role\":\"user\",\"content\":\"What time is it in Oslo?\"},{\"role\":\"assistant\",\"content\":"  \
    "null,\"tool_calls\":[{\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"get_time\",\"arguments\":"      \
    "\"{\\\"city\\\":\\\"Oslo\\\"}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":\"12:30\"}]," TOOLS

/* ---- A client that leaves -------------------------------------------------------------------------------------- */

/* Seconds until the server is seen to have noticed: half of one on an idle machine. */
#define NOTICED 2.5

/* Processor time that the server has used, in seconds. */
static double g4_processor_time(const g4_server *s)
{
    char path[64], text[1024] = "";
    unsigned long user = 0, kernel = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)s->pid);
    FILE *f = fopen(path, "r");
    if (f != NULL) text[fread(text, 1, sizeof text - 1, f)] = '\0';
    if (f != NULL) fclose(f);
    const char *at = strrchr(text, ')'); /* of its name */
    if (at == NULL || sscanf(at, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &kernel) != 2)
        return -1;
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

/* Nobody asks any more: that is noticed, and from then on the processor has nothing to do. */
static void g4_expect_idle(const g4_server *s, const char *what)
{
    const double began = g4_now();
    g4_until(s, "running", 0, 5);
    g4_until(s, "waiting", 0, 5);
    g4_until(s, "connections", 1, 5); /* our own */
    const double noticed = g4_now() - began, used = g4_processor_time(s);
    G4_EXPECT(noticed < NOTICED, "%s: noticed after %.2f s", what, noticed);
    g4_nap(0.6);
    const double more = g4_processor_time(s) - used;
    G4_EXPECT(used > 0 && more < 0.2, "%s: then %.2f s of work in 0.6 s", what, more);
}

/* Until that stands in what has come; 0: it does not come. */
static int g4_wait_for(int fd, char *answer, const char *text)
{
    size_t len = 0;
    answer[0] = '\0';
    for (const double until = g4_now() + 20; strstr(answer, text) == NULL;)
        if (g4_receive(fd, answer, &len, until - g4_now()) <= 0) return 0;
    return 1;
}

/* A request of nearly all of the context, in memory to be freed. */
static char *g4_long_prompt(void)
{
    char *body = malloc(60000), *at = body;
    at += sprintf(at, "{\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < 1900; i++) at += sprintf(at, "word%d ", i % 7);
    sprintf(at, "\"}]}");
    return body;
}

static void g4_test_gone_in_thought(const g4_server *s)
{
    static const char body[] = "{\"enable_thinking\":true," AFTER_RESULT "," UNENDING "%s}";
    char text[4096], *answer = malloc(TEXT);
    snprintf(text, sizeof text, body, ",\"stream\":true");
    int fd = g4_begin(s, text, "running", 1);
    G4_EXPECT(g4_wait_for(fd, answer, "\"reasoning_content\":\"") && strstr(answer, "\"content\":\"\"}") != NULL,
              "it thinks: %s", answer);
    close(fd);
    g4_expect_idle(s, "a streamed thought");
    snprintf(text, sizeof text, body, "");
    fd = g4_begin(s, text, "running", 1);
    g4_nap(0.3);
    G4_EXPECT(g4_metric(s, "running") == 1, "it thinks");
    close(fd);
    g4_expect_idle(s, "a thought");
    static const char plain[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]," UNENDING ",\"stream\":true}";
    fd = g4_begin(s, plain, "running", 1);
    const int waits = g4_begin(s, plain, "waiting", 1);
    G4_EXPECT(g4_wait_for(fd, answer, "\"delta\":{\"content\":\""), "it answers: %s", answer);
    close(waits);
    close(fd);
    g4_expect_idle(s, "an answer, and one that waits");
    char *prompt = g4_long_prompt();
    close(g4_begin(s, prompt, "running", 1));
    g4_expect_idle(s, "a long prompt");
    free(prompt);
    free(answer);
}

/* ---- A long prompt beside a stream ------------------------------------------------------------------------------ */

typedef struct {
    int n;
    double longest, last; /* seconds between two events, and when the last one came */
} g4_pace;

/* Read events for so long, or until `other` has something to read. */
static void g4_take_events(int fd, int other, double seconds, g4_pace *p)
{
    struct pollfd ready[2] = { { .fd = fd, .events = POLLIN }, { .fd = other, .events = POLLIN } };
    static char room[1 << 16];
    *p = (g4_pace) { .last = g4_now() };
    for (const double until = g4_now() + seconds; g4_now() < until && ready[1].revents == 0;) {
        poll(ready, 2, 50);
        const ssize_t n = ready[0].revents != 0 ? recv(fd, room, sizeof room, 0) : 1;
        if (n <= 0) return;
        if (ready[0].revents == 0) continue;
        const double now = g4_now(), gap = now - p->last;
        if (gap > p->longest) p->longest = gap;
        p->last = now;
        p->n++;
    }
    if (g4_now() - p->last > p->longest) p->longest = g4_now() - p->last;
}

/* The stream goes on while the prompt is read: none of its pauses is a good part of that time. */
static void g4_test_long_prompt(const g4_server *s)
{
    static const char stream[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]," UNENDING ",\"stream\":true}";
    g4_pace alone, beside;
    char *body = g4_long_prompt(), *answer = malloc(TEXT);
    char *text = g4_request_text("POST", CHAT, "", body);
    const int fd = g4_begin(s, stream, "running", 1), other = g4_connect(s);
    G4_EXPECT(g4_wait_for(fd, answer, "\"delta\":{\"content\":\""), "it answers: %s", answer);
    g4_take_events(fd, other, 0.5, &alone);
    const double began = g4_now();
    g4_send(other, text, strlen(text));
    g4_take_events(fd, other, 60, &beside);
    const double seconds = g4_now() - began;
    G4_EXPECT(g4_read_answer(other, answer, 10) == 200, "%s", answer);
    G4_EXPECT(beside.n > 10 && beside.longest < seconds / 2 + 2 * alone.longest,
              "a prompt of %.2f s: %d events meanwhile, the longest pause %.2f s; alone %.2f s", seconds, beside.n,
              beside.longest, alone.longest);
    close(fd);
    close(other);
    g4_expect_idle(s, "a long prompt beside a stream");
    free(body);
    free(text);
    free(answer);
}

/* ---- Thoughts and calls ----------------------------------------------------------------------------------------- */

/* The texts behind all `key`s, up to their closing quotes, one after another, escapes as they are. */
static void g4_texts(const char *answer, const char *key, char *out)
{
    for (const char *at = answer; (at = strstr(at, key)) != NULL;) {
        at += strlen(key);
        for (; *at != '"' && *at != '\0'; *out++ = *at++)
            if (*at == '\\') *out++ = *at++;
    }
    *out = '\0';
}

typedef struct {             /* of a dialect: what stands before a thought, a text, and the arguments of a call */
    const char *path, *more; /* more: members of the request */
    const char *thought, *text, *arguments;
    const char *thought_event, *text_event, *arguments_event;
    const char *ends[2]; /* of an answer, of one that calls */
} g4_dialect_form;

static const g4_dialect_form g4_forms[] = { { CHAT,
                                              "\"max_tokens\":60,",
                                              "\"reasoning_content\":\"",
                                              "\"role\":\"assistant\",\"content\":\"",
                                              "\"arguments\":\"",
                                              "\"delta\":{\"reasoning_content\":\"",
                                              "\"delta\":{\"content\":\"",
                                              "\"arguments\":\"",
                                              { "\"finish_reason\":\"stop\"", "\"finish_reason\":\"tool_calls\"" } },
                                            { "/v1/messages",
                                              "\"max_tokens\":60,",
                                              "{\"type\":\"thinking\",\"thinking\":\"",
                                              "{\"type\":\"text\",\"text\":\"",
                                              "\"input\":",
                                              "\"thinking_delta\",\"thinking\":\"",
                                              "\"text_delta\",\"text\":\"",
                                              "\"input_json_delta\",\"partial_json\":\"",
                                              { "\"stop_reason\":\"end_turn\"", "\"stop_reason\":\"tool_use\"" } },
                                            { "/v1/responses",
                                              "\"max_output_tokens\":60,",
                                              "\"content\":[{\"type\":\"reasoning_text\",\"text\":\"",
                                              "\"content\":[{\"type\":\"output_text\",\"text\":\"",
                                              "\"arguments\":\"",
                                              "event: response.reasoning_text.delta\n",
                                              "event: response.output_text.delta\n",
                                              "event: response.function_call_arguments.delta\n",
                                              { "\"status\":\"completed\"", "\"status\":\"completed\"" } } };

/* What a conversation of chat/completions, with a result of a tool at its end, is in the three dialects. */
static const char *const g4_after_result[] = {
    AFTER_RESULT,
    "\"messages\":[{\"role\":\"user\",\"content\":\"What time is it in Oslo?\"},{\"role\":\"assistant\",\"content\":[{"
    "\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"get_time\",\"input\":{\"city\":\"Oslo\"}}]},{\"role\":\"user\","
    "\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"c\",\"content\":\"12:30\"}]}],\"tools\":[{\"name\":"
    "\"get_time\",\"input_schema\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}},\"required\":["
    "\"city\"]}}]",
    "\"input\":[{\"role\":\"user\",\"content\":\"What time is it in Oslo?\"},{\"type\":\"function_call\",\"call_id\":"
    "\"c\",\"name\":\"get_time\",\"arguments\":\"{\\\"city\\\":\\\"Oslo\\\"}\"},{\"type\":\"function_call_output\","
    "\"call_id\":\"c\",\"output\":\"12:30\"}],\"tools\":[{\"type\":\"function\",\"name\":\"get_time\",\"parameters\":{"
    "\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}},\"required\":[\"city\"]}}]"
};
static const char *const g4_thinking[] = { "\"enable_thinking\":true,",
                                           "\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024},",
                                           "\"reasoning\":{\"effort\":\"low\"}," };

/* The deltas of that kind in a stream; those of responses say their text behind the key of all events. */
static void g4_told(const char *stream, int dialect, const char *event, char *out)
{
    out[0] = '\0';
    if (dialect != 2) {
        g4_texts(stream, event, out);
        return;
    }
    for (const char *at = stream; (at = strstr(at, event)) != NULL; at++) {
        const char *line = strchr(at + strlen(event), '\n');
        char *one = line != NULL ? strndup(at, (size_t)(line - at)) : NULL;
        if (one == NULL) return;
        g4_texts(one, "\"delta\":\"", out);
        out += strlen(out);
        free(one);
    }
}

/* Behind the result of a tool a thought is open where thinking is on, and only there; whole and streamed it comes as a
 * thought, what follows it as text, and nothing of its markers is seen. */
static void g4_test_open_thought(const g4_server *s)
{
    char body[4096], *whole = malloc(TEXT), *stream = malloc(TEXT), *want = malloc(TEXT), *got = malloc(TEXT);
    static const char opened[] = "<tool_response|><|channel>thought\\n\"";
    for (int on = 0; on < 2; on++) {
        snprintf(body, sizeof body, "{%s%s}", on ? g4_thinking[0] : "", AFTER_RESULT);
        G4_EXPECT(g4_ask(s, "/apply-template", body, whole) == 200 && (strstr(whole, opened) != NULL) == on, "%s",
                  whole);
        for (int i = 0; i < 3; i++) {
            const g4_dialect_form *f = &g4_forms[i];
            static const char form[] = "{\"temperature\":0,%s%s%s%s}";
            const char *think = on ? g4_thinking[i] : "";
            snprintf(body, sizeof body, form, f->more, think, "", g4_after_result[i]);
            G4_EXPECT(g4_ask(s, f->path, body, whole) == 200, "%s", whole);
            snprintf(body, sizeof body, form, f->more, think, "\"stream\":true,", g4_after_result[i]);
            G4_EXPECT(g4_ask(s, f->path, body, stream) == 200, "%s", stream);
            const char *thought = strstr(stream, f->thought_event), *text = strstr(stream, f->text_event);
            G4_EXPECT(text != NULL && (thought != NULL) == on && (!on || thought < text), "%s, thinking %d: %s",
                      f->path, on, stream);
            for (int k = 0; k < 2; k++) {
                g4_texts(whole, k == 0 ? f->thought : f->text, want);
                g4_told(stream, i, k == 0 ? f->thought_event : f->text_event, got);
                G4_EXPECT(strcmp(want, got) == 0 && (want[0] != '\0') == (on || k == 1), "%s, thinking %d: %s, not %s",
                          f->path, on, got, want);
                G4_EXPECT(strstr(want, "|>") == NULL && strstr(want, "<|") == NULL, "%s: %s", f->path, want);
            }
            G4_EXPECT(strstr(whole, f->ends[0]) != NULL && strstr(stream, f->ends[0]) != NULL, "%s: %s\n%s", f->path,
                      whole, stream);
        }
    }
    free(whole);
    free(stream);
    free(want);
    free(got);
}

/* A call is no text: its pieces are together what the whole answer says, and the answer ends with a call. */
static void g4_test_calls_in_streams(const g4_server *s)
{
    static const char *const ask[] = {
        "\"messages\":[{\"role\":\"user\",\"content\":\"What time is it in "
        "Oslo?\"}],\"tool_choice\":\"required\"," TOOLS,
        "\"messages\":[{\"role\":\"user\",\"content\":\"What time is it in "
        "Oslo?\"}],\"tool_choice\":{\"type\":\"any\"},"
        "\"tools\":[{\"name\":\"get_time\",\"input_schema\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":"
        "\"string\"}},\"required\":[\"city\"]}}]",
        "\"input\":\"What time is it in "
        "Oslo?\",\"tool_choice\":\"required\",\"tools\":[{\"type\":\"function\",\"name\":"
        "\"get_time\",\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}},\"required\":"
        "["
        "\"city\"]}}]"
    };
    char body[2048], *whole = malloc(TEXT), *stream = malloc(TEXT), *want = malloc(TEXT), *got = malloc(TEXT);
    for (int i = 0; i < 3; i++) {
        const g4_dialect_form *f = &g4_forms[i];
        snprintf(body, sizeof body, "{\"temperature\":0,%s%s}", f->more, ask[i]);
        G4_EXPECT(g4_ask(s, f->path, body, whole) == 200, "%s", whole);
        snprintf(body, sizeof body, "{\"temperature\":0,%s\"stream\":true,%s}", f->more, ask[i]);
        G4_EXPECT(g4_ask(s, f->path, body, stream) == 200, "%s", stream);
        g4_told(stream, i, f->arguments_event, got);
        if (i == 1) { /* an object, not its text */
            const char *from = strstr(whole, f->arguments), *to = from != NULL ? strchr(from, '}') : NULL;
            snprintf(want, TEXT, "%.*s", to != NULL ? (int)(to + 1 - from - 8) : 0, from != NULL ? from + 8 : "");
            char *out = got;
            for (const char *at = got; *at != '\0'; at++) /* as it is without the escapes */
                if (*at != '\\') *out++ = *at;
            *out = '\0';
        } else {
            g4_texts(whole, f->arguments, want);
        }
        G4_EXPECT(strstr(want, "city") != NULL && strcmp(want, got) == 0, "%s: %s, not %s\n%s", f->path, got, want,
                  stream);
        G4_EXPECT(strstr(whole, f->ends[1]) != NULL && strstr(stream, f->ends[1]) != NULL, "%s: %s\n%s", f->path, whole,
                  stream);
        G4_EXPECT(strstr(whole, "tool_call|") == NULL && strstr(stream, "tool_call|") == NULL, "%s: %s", f->path,
                  stream);
    }
    free(whole);
    free(stream);
    free(want);
    free(got);
}

int main(void)
{
    const char *const usual[] = { NULL }, *const one[] = { G4_SLOWLY, "--parallel", "1", NULL };
    const char *const two[] = { G4_SLOWLY, "--parallel", "2", NULL };
    signal(SIGPIPE, SIG_IGN);
    g4_server s = g4_serve(usual);
    G4_EXPECT(s.port > 0, "the server has begun");
    if (s.port == 0) return g4_test_end();
    g4_test_open_thought(&s);
    g4_test_calls_in_streams(&s);
    G4_EXPECT(g4_stop(&s) == 0, "the end");
    s = g4_serve(one);
    g4_test_gone_in_thought(&s);
    G4_EXPECT(g4_stop(&s) == 0, "the end");
    s = g4_serve(two);
    g4_test_long_prompt(&s);
    G4_EXPECT(g4_stop(&s) == 0, "the end");
    return g4_test_end();
}
