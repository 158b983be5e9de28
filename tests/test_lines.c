/* test_lines.c - lines of batch files: requests in their envelope or alone, prompts, and the lines of answers. */
#include "chat/chat.h"
#include "failing.h"
#include "test.h"

#include <string.h>

/* What a line becomes: "ID|completion or chat|PROMPT", or why it is refused. */
static void g4_expect_line(const char *json, const char *want, int line)
{
    char got[512];
    g4_error err = { 0 };
    g4_fault fault;
    g4_request *r;
    if (g4_request_read(&r, json, strlen(json), NULL, &fault, &err) == G4_OK) {
        const g4_request_info *i = g4_request_get(r);
        snprintf(got, sizeof got, "%s|%s|%s", i->custom_id != NULL ? i->custom_id : "",
                 i->is_completion ? "completion" : "chat", i->prompt != NULL ? i->prompt : "");
    } else {
        snprintf(got, sizeof got, "%s", err.message);
        if (fault.param[0] != '\0')
            G4_EXPECT(strncmp(got, fault.param, strlen(fault.param)) == 0, "line %d: param %s", line, fault.param);
    }
    G4_EXPECT(strcmp(got, want) == 0, "line %d: %s: got\n%s\nwant\n%s", line, json, got, want);
    g4_request_close(r);
}
#define G4_LINE(json, want) g4_expect_line(json, want, __LINE__)

#define G4_HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define G4_CHAT "\"url\":\"/v1/chat/completions\","
#define G4_TEXT "\"url\":\"/v1/completions\","

static void g4_test_envelopes(void)
{
    G4_LINE("{\"custom_id\":\"a\",\"method\":\"POST\"," G4_CHAT "\"body\":{" G4_HI "}}", "a|chat|");
    G4_LINE("{\"custom_id\":\"a\"," G4_TEXT "\"body\":{\"prompt\":\"once\"}}", "a|completion|once");
    G4_LINE("{\"custom_id\":12,\"body\":{\"prompt\":\"once\"}}", "12|chat|once");
    G4_LINE("{\"custom_id\":null,\"method\":null,\"url\":null,\"body\":{" G4_HI "}}", "|chat|");
    G4_LINE("{\"custom_id\":\"a\"," G4_HI "}", "a|chat|");
    G4_LINE("{\"prompt\":\"once\"}", "|chat|once");
    G4_LINE("{" G4_HI ",\"prompt\":null}", "|chat|");
    G4_LINE("{\"prompt\":\"\",\"logprobs\":3,\"echo\":false,\"suffix\":null}", "|chat|");

    G4_LINE("{\"custom_id\":[],\"body\":{}}", "custom_id: expected text, found a list");
    G4_LINE("{\"custom_id\":\"a\\u0000b\",\"body\":{}}", "custom_id: expected text without a NUL");
    G4_LINE("{\"method\":\"GET\",\"body\":{}}", "method: expected \"POST\", found GET");
    G4_LINE("{\"method\":5,\"body\":{}}", "method: expected \"POST\", found a number");
    G4_LINE("{\"url\":\"/v1/embeddings\",\"body\":{}}",
            "url: expected /v1/chat/completions, /v1/completions, /v1/messages or /v1/responses, found /v1/embeddings");
    G4_LINE("{\"url\":{},\"body\":{}}",
            "url: expected /v1/chat/completions, /v1/completions, /v1/messages or /v1/responses, found an object");
    /* addresses of a server, and other dialects */
    G4_LINE("{\"custom_id\":\"a\",\"url\":\"https://x.example:8080/v1/chat/completions\",\"body\":{" G4_HI "}}",
            "a|chat|");
    G4_LINE("{\"custom_id\":\"a\",\"url\":\"http://x/y/v1/completions\",\"body\":{\"prompt\":\"x\"}}",
            "a|completion|x");
    G4_LINE("{\"url\":\"ftp://x/v1/completions\",\"body\":{\"prompt\":\"x\"}}",
            "url: expected /v1/chat/completions, /v1/completions, /v1/messages or /v1/responses, found "
            "ftp://x/v1/completions");
    G4_LINE("{\"custom_id\":\"a\",\"params\":{\"system\":\"x\"," G4_HI "}}", "a|chat|");
    G4_LINE("{\"custom_id\":\"a\",\"params\":{\"messages\":[{\"role\":\"tool\"}]}}",
            "messages[0].role: expected user or assistant, found tool");
    G4_LINE("{\"url\":\"/v1/messages\",\"body\":{" G4_HI "}}", "|chat|");
    G4_LINE("{\"url\":\"/v1/responses\",\"body\":{\"input\":\"x\"}}", "|chat|");
    G4_LINE("{\"url\":\"/v1/responses\",\"body\":{\"prompt\":\"x\"}}",
            "input: expected by /v1/responses, found nothing");
    G4_LINE("{\"url\":\"/v1/completions\",\"body\":{\"prompt\":[\"x\"]}}", "|completion|x");
    G4_LINE("{\"url\":\"/v1/completions\",\"body\":{\"prompt\":[5,6]}}", "|completion|");
    G4_LINE("{\"url\":\"/v1/completions\",\"body\":{\"prompt\":[5,-6]}}", "prompt: expected ids of tokens, found -6");
    G4_LINE("{\"url\":\"/v1/completions\",\"body\":{\"prompt\":\"x\",\"echo\":true}}",
            "echo: expected false: the prompt is not repeated");
    G4_LINE("{\"custom_id\":\"a\"," G4_CHAT "\"method\":\"POST\"}", "body: expected an object, found nothing");
    G4_LINE("{\"custom_id\":\"a\"," G4_CHAT "\"body\":null}", "body: expected an object, found null");
    G4_LINE("{\"body\":[]}", "body: expected an object, found a list");
    G4_LINE("{" G4_CHAT "\"body\":{\"prompt\":\"x\"}}", "messages: expected by /v1/chat/completions, found nothing");
    G4_LINE("{" G4_TEXT "\"body\":{" G4_HI "}}", "prompt: expected by /v1/completions, found nothing");
    G4_LINE("{\"prompt\":[\"x\"]}", "prompt: expected text, found a list");
    G4_LINE("{\"prompt\":\"x\"," G4_HI "}", "prompt: expected messages or a prompt, found both");
    G4_LINE("{\"prompt\":\"x\",\"echo\":true}", "echo: expected false: the prompt is not repeated");
    G4_LINE("{\"prompt\":\"x\",\"suffix\":\"y\"}", "suffix: expected none: text is continued at its end");
    G4_LINE("{\"prompt\":\"x\",\"logprobs\":65}", "logprobs: expected a whole number from 0 to 64, found 65");
    G4_LINE("{\"custom_id\":\"a\",\"body\":{\"temperature\":-1}}",
            "temperature: expected a number from 0 to 1e+06, found -1");
}

/* A prompt is what the user says. */
static void g4_test_prompt(void)
{
    static const char json[] = "{\"prompt\":\"once <|turn>\"}";
    const g4_chat_options opt = { .template_name = "31b-2026-07" };
    g4_request *r;
    g4_chat *c = NULL;
    g4_error err = { 0 };
    g4_status st = g4_request_read(&r, json, sizeof json - 1, NULL, NULL, &err);
    if (st == G4_OK) st = g4_request_chat(&c, NULL, r, &opt, NULL, &err);
    const char *text = c != NULL ? g4_chat_text(c, NULL) : err.message;
    G4_EXPECT(strstr(text, "<bos><|turn>user\nonce <|turn><turn|>\n<|turn>model\n") == text, "%s", text);
    g4_chat_close(c);
    g4_request_close(r);
}

/* "ID answer succeeded", or why the line is none. */
static void g4_expect_answer(const char *json, const char *want, int line)
{
    g4_batch_line l;
    g4_error err = { 0 };
    char got[256];
    if (g4_batch_line_read(&l, json, strlen(json), NULL, NULL, &err) == G4_OK)
        snprintf(got, sizeof got, "%s %d %d%s%s", l.custom_id != NULL ? l.custom_id : "-", l.is_answer, l.has_succeeded,
                 l.id != NULL ? " " : "", l.id != NULL ? l.id : "");
    else
        snprintf(got, sizeof got, "%s", err.message);
    G4_EXPECT(strcmp(got, want) == 0, "line %d: %s: got %s, want %s", line, json, got, want);
    g4_batch_line_close(&l, NULL);
    G4_EXPECT(l.custom_id == NULL, "line %d: closed", line);
}
#define G4_ANSWER(json, want) g4_expect_answer(json, want, __LINE__)

static void g4_test_answers(void)
{
    G4_ANSWER("{\"custom_id\":\"a\",\"response\":{\"status_code\":200,\"body\":{}},\"error\":null}", "a 1 1");
    G4_ANSWER("{\"custom_id\":\"a\",\"response\":{\"status_code\":400,\"body\":{}},\"error\":{\"code\":\"x\"}}",
              "a 1 0");
    G4_ANSWER("{\"custom_id\":\"a\",\"response\":{\"status_code\":200,\"body\":{}},\"error\":{}}", "a 1 0");
    G4_ANSWER("{\"custom_id\":\"a\",\"response\":null,\"error\":{\"code\":\"x\"}}", "a 1 0");
    G4_ANSWER("{\"custom_id\":\"a\",\"response\":{\"status_code\":200},\"error\":null}", "a 1 0");
    G4_ANSWER("{\"custom_id\":\"a\",\"response\":{\"status_code\":200,\"body\":{}}}", "a 0 1");
    G4_ANSWER("{\"custom_id\":\"a\",\"body\":{}}", "a 0 0");
    G4_ANSWER("{\"custom_id\":\"a\",\"id\":\"x\",\"body\":{}}", "a 0 0");
    G4_ANSWER("{\"id\":\"x\",\"custom_id\":\"a\",\"response\":{},\"error\":null}", "a 1 0 x");
    G4_ANSWER("{\"id\":{},\"custom_id\":\"a\",\"response\":{},\"error\":null}", "id: expected text, found an object");
    G4_ANSWER("{\"body\":{}}", "- 0 0");
    G4_ANSWER("5", "- 0 0");
    G4_ANSWER("{\"custom_id\":[]}", "custom_id: expected text, found a list");
    G4_ANSWER("{\"custom_id\":\"a\"", "JSON, line 1 column 17: expected ',' or '}'");
    g4_error err;
    g4_batch_line l;
    G4_EXPECT(g4_batch_line_read(NULL, "{}", 2, NULL, NULL, &err) == G4_ERR_ARGUMENT, "out is NULL");
    G4_EXPECT(g4_batch_line_read(&l, NULL, 2, NULL, NULL, &err) == G4_ERR_ARGUMENT, "json is NULL");
    g4_batch_line_close(NULL, NULL);

    g4_cancel cancel = { 0 };
    const g4_limits limits = { .cancel = &cancel };
    static char list[1 << 20]; /* [1,1,...,1] */
    for (size_t i = 0; i < sizeof list; i++) list[i] = i % 2 == 0 ? ',' : '1';
    list[0] = '[';
    memcpy(list + sizeof list - 2, " ]", 2);
    G4_EXPECT(g4_batch_line_read(&l, list, sizeof list, &limits, NULL, &err) == G4_OK, "within its limits");
    g4_cancel_set(&cancel);
    G4_EXPECT(g4_batch_line_read(&l, list, sizeof list, &limits, NULL, &err) == G4_ERR_CANCELED, "cancelled");
}

/* ---- A text that was continued --------------------------------------------------------------------- */

static int g4_append(void *user, const void *data, size_t size)
{
    g4_buf_add(user, data, size);
    return 0;
}

static void g4_test_completion(void)
{
    const g4_part parts[] = { { .kind = G4_PART_TEXT, .text = "a \"b\"" }, { .kind = G4_PART_TEXT, .text = "\n" } };
    g4_answer answer = {
        .id = 5, .created = 7, .model = "m", .parts = parts, .n_parts = 2, .dialect = G4_DIALECT_COMPLETIONS
    };
    g4_buf b = { 0 };
    answer.result = (g4_result) { .stop = G4_STOP_MAX_TOKENS, .n_tokens = 3 };
    G4_EXPECT(g4_answer_write(&answer, g4_append, &b, NULL, NULL) == G4_OK, "written");
    static const char want[] =
        "{\"id\":\"cmpl-0000000000000005\",\"object\":\"text_completion\",\"created\":7,\"model\":\"m\","
        "\"system_fingerprint\":\"gemma4.c-" G4_VERSION "\",\"choices\":[{\"index\":0,\"text\":\"a \\\"b\\\"\\n\","
        "\"logprobs\":null,\"finish_reason\":\"length\"}],\"usage\":{";
    G4_EXPECT(b.data != NULL && strncmp(b.data, want, sizeof want - 1) == 0, "%s", b.data);
    g4_buf_free(&b);
}

/* ---- Memory that runs out ------------------------------------------------------------------------ */

static void g4_test_memory(void)
{
    static const char json[] =
        "{\"id\":\"x\",\"custom_id\":\"a\"," G4_TEXT "\"body\":{\"prompt\":\"once\"},\"response\":1,"
        "\"error\":2}";
    g4_failing f = { 0, -1, 0 };
    const g4_allocator al = g4_failing_allocator(&f);
    long n_failures = 0;
    for (long k = 0; k < 200; k++) {
        g4_request *r;
        g4_batch_line l;
        f = (g4_failing) { 0, k, 0 };
        const g4_status st = g4_request_read(&r, json, sizeof json - 1, &al, NULL, NULL);
        if ((st == G4_OK) != (f.calls <= k)) G4_EXPECT(0, "allocation %ld: %s", k, g4_status_name(st));
        const int is_over = f.calls <= k;
        g4_request_close(r);
        f = (g4_failing) { 0, k, 0 };
        const g4_status other = g4_batch_line_read(&l, json, sizeof json - 1, NULL, &al, NULL);
        if ((other == G4_OK) != (f.calls <= k)) G4_EXPECT(0, "allocation %ld: %s", k, g4_status_name(other));
        g4_batch_line_close(&l, &al);
        if (f.live != 0) G4_EXPECT(0, "allocation %ld: %ld live", k, f.live);
        n_failures += !is_over;
        if (is_over && other == G4_OK) break;
    }
    G4_EXPECT(n_failures >= 2, "%ld failures", n_failures);
}

int main(void)
{
    g4_test_envelopes();
    g4_test_prompt();
    g4_test_answers();
    g4_test_completion();
    g4_test_memory();
    return g4_test_end();
}
