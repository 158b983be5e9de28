/* Conversations to prompts: golden cases made from the official templates (test_render_jinja.py --write), the examples
 * in ../shared when they are there, messages as plain data, OpenAI's format, media sources, errors that name the
 * message, failing allocations. */
#include <stdlib.h>
#include <string.h>

#include "failing.h"
#include "chat/chat.h"
#include "test.h"

static char *g4_read_all(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) return NULL;
    size_t cap = 1 << 16, n = 0;
    char *data = malloc(cap);
    for (size_t k; data != NULL && (k = fread(data + n, 1, cap - n, f)) > 0;) {
        n += k;
        if (n == cap) data = realloc(data, cap *= 2);
    }
    fclose(f);
    *size = n;
    return data;
}

/* Every line of a file of conversations with their prompts (null: refused). */
static int g4_check_lines(const char *path)
{
    size_t size, lines = 0;
    char *data = g4_read_all(path, &size);
    if (data == NULL) return 0;
    for (char *p = data, *end; p < data + size; p = end + 1, lines++) {
        end = memchr(p, '\n', (size_t)(data + size - p));
        if (end == NULL) break;
        g4_error err = { 0 };
        g4_json *doc;
        if (g4_json_parse(&doc, NULL, p, (size_t)(end - p), &err) != G4_OK) {
            G4_EXPECT(0, "%s:%zu: %s", path, lines + 1, err.message);
            continue;
        }
        const g4_json *want = g4_json_get(doc, "prompt"), *name = g4_json_get(doc, "template");
        g4_chat_options opt = { .template_name = name->text };
        g4_chat *c;
        g4_status st = g4_chat_parse(&c, NULL, p, (size_t)(end - p), &opt, &err);
        if (want->kind == G4_JSON_NULL) {
            G4_EXPECT(st == G4_ERR_ARGUMENT && c == NULL &&
                          (strstr(err.message, "messages") != NULL || strstr(err.message, "tools[") != NULL),
                      "%s:%zu: %d %s", path, lines + 1, st, err.message);
        } else {
            size_t n = 0;
            const char *got = st == G4_OK ? g4_chat_text(c, &n) : err.message;
            G4_EXPECT(st == G4_OK && n == want->text_len && memcmp(got, want->text, n) == 0,
                      "%s:%zu: got\n%s\nwant\n%s", path, lines + 1, got, want->text);
        }
        g4_chat_close(c);
        g4_json_free(NULL, doc);
    }
    free(data);
    return lines > 0;
}

static void g4_expect_prompt(const g4_message *m, int n, const g4_chat_options *opt, const char *want)
{
    g4_error err = { 0 };
    g4_chat *c;
    g4_status st = g4_chat_open(&c, NULL, m, n, opt, &err);
    const char *got = st == G4_OK ? g4_chat_text(c, NULL) : err.message;
    G4_EXPECT(strcmp(got, want) == 0, "got\n%s\nwant\n%s", got, want);
    g4_chat_close(c);
}

static void g4_expect_json(const char *json, int openai, const char *want)
{
    g4_error err = { 0 };
    g4_chat *c;
    g4_chat_options opt = { .template_name = "31b-2026-07", .openai = openai };
    g4_status st = g4_chat_parse(&c, NULL, json, strlen(json), &opt, &err);
    const char *got = st == G4_OK ? g4_chat_text(c, NULL) : err.message;
    G4_EXPECT(strcmp(got, want) == 0, "%s: got\n%s\nwant\n%s", json, got, want);
    g4_chat_close(c);
}

static const char g4_tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"description\": \"Does f.\", \"parameters\": "
    "{\"type\": "
    "\"object\", \"properties\": {\"a\": {\"type\": \"integer\"}}, \"required\": [\"a\"]}}}]";
#define G4_DECL                                                                                                        \
    "<|tool>declaration:f{description:<|\"|>Does "                                                                     \
    "f.<|\"|>,parameters:{properties:{a:{type:<|\"|>INTEGER<|\"|>}},required:[<|\"|>a<|\"|>],"                         \
    "type:<|\"|>OBJECT<|\"|>}}<tool|>"

static void g4_test_messages(void)
{
    g4_image image = { 0 };
    const g4_part system = { .kind = G4_PART_TEXT, .text = " Be brief. " };
    const g4_part ask[] = { { .kind = G4_PART_TEXT, .text = " What is " },
                            { .kind = G4_PART_IMAGE, .image = &image },
                            { .kind = G4_PART_TEXT, .text = "this<turn|>? xx", .text_len = 13 } };
    const g4_part call[] = {
        { .kind = G4_PART_THOUGHT, .text = "I need f." },
        { .kind = G4_PART_TOOL_CALL, .name = "f", .id = "1", .text = "{\"b\": [1, \"x\"], \"a\": 2.50}" },
        { .kind = G4_PART_TOOL_CALL, .name = "g", .id = "2" }
    };
    const g4_part results[] = { { .kind = G4_PART_TOOL_RESULT, .id = "2", .text = "plain {" },
                                { .kind = G4_PART_TOOL_RESULT, .id = "1", .text = "{\"n\": null}" } };
    const g4_part ordered[] = { { .kind = G4_PART_TOOL_RESULT, .text = "first" },
                                { .kind = G4_PART_TOOL_RESULT, .text = "[1]" } };
    const g4_part answer = { .kind = G4_PART_TEXT, .text = "A cat." };
    g4_message m[] = { { .role = G4_ROLE_SYSTEM, .parts = &system, .n_parts = 1 },
                       { .role = G4_ROLE_USER, .parts = ask, .n_parts = 3 },
                       { .role = G4_ROLE_MODEL, .parts = call, .n_parts = 3 },
                       { .role = G4_ROLE_TOOL, .parts = results, .n_parts = 2 },
                       { .role = G4_ROLE_MODEL, .parts = &answer, .n_parts = 1 } };
    g4_chat_options opt = { .template_name = "31b-2026-07", .tools = g4_tools, .no_generation_prompt = 1 };
    const char *start =
        "<bos><|turn>system\nBe brief." G4_DECL
        "<turn|>\n<|turn>user\nWhat is<|image|>this<turn|>?<turn|>\n<|turn>model\n"
        "<|channel>thought\nI need "
        "f.\n<channel|><|tool_call>call:f{a:2.5,b:[1,<|\"|>x<|\"|>]}<tool_call|><|tool_call>call:g{}<tool_call|>";
    char want[2048];
    snprintf(want, sizeof want,
             "%s<|tool_response>response:g{value:<|\"|>plain {<|\"|>}<tool_response|><|tool_response>response:f{n:null}"
             "<tool_response|>A cat.<turn|>\n",
             start);
    g4_expect_prompt(m, 5, &opt, want);
    m[3].parts = ordered;
    snprintf(want, sizeof want,
             "%s<|tool_response>response:f{value:<|\"|>first<|\"|>}<tool_response|><|tool_response>response:g{value:<|"
             "\"|>[1]<|\"|>}"
             "<tool_response|>A cat.<turn|>\n",
             start);
    g4_expect_prompt(m, 5, &opt, want);
    snprintf(want, sizeof want, "%s<|tool_response>", start);
    opt.no_generation_prompt = 0;
    g4_expect_prompt(m, 3, &opt, want);
    g4_chat_options plain = { .template_name = "31b-2026-07" };
    g4_expect_prompt(
        m, 2, &plain,
        "<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\nWhat is<|image|>this<turn|>?<turn|>\n<|turn>model\n"
        "<|channel>thought\n<channel|>");
    plain.template_name = "e2b-2026-07";
    plain.thinking = 1;
    g4_expect_prompt(
        m + 1, 1, &plain,
        "<bos><|turn>system\n<|think|>\n<turn|>\n<|turn>user\nWhat is<|image|>this<turn|>?<turn|>\n<|turn>model\n");
    g4_expect_prompt(NULL, 0, &plain, "<bos><|turn>system\n<|think|>\n<turn|>\n<|turn>model\n");

    /* errors name message and part */
    const g4_part bad = { .kind = G4_PART_TOOL_CALL, .name = "f", .text = "{\"a\": }" },
                  list = { .kind = G4_PART_TOOL_CALL, .name = "f", .text = "[]" },
                  none = { .kind = G4_PART_TOOL_CALL, .name = "f", .text = " null " },
                  nobody = { .kind = G4_PART_TOOL_RESULT, .text = "x" }, hollow = { .kind = G4_PART_IMAGE },
                  stranger = { .kind = G4_PART_TOOL_RESULT, .id = "9", .text = "x" };
    g4_message wrong = { .role = G4_ROLE_MODEL, .parts = &bad, .n_parts = 1 };
#define G4_CALLED "<bos><|turn>system\n<|think|>\n<turn|>\n<|turn>model\n<|tool_call>call:f{"
#define G4_ASKED "}<tool_call|><|tool_response>"
    /* what the model wrote is passed on, however broken it is */
    g4_expect_prompt(&wrong, 1, &plain, G4_CALLED "{\"a\": }" G4_ASKED);
    wrong.parts = &list;
    g4_expect_prompt(&wrong, 1, &plain, G4_CALLED "[]" G4_ASKED);
    wrong.parts = &none;
    g4_expect_prompt(&wrong, 1, &plain, G4_CALLED G4_ASKED);
    wrong.parts = &nobody;
    g4_expect_prompt(&wrong, 1, &plain,
                     "messages[0] part 0: a tool result belongs in a tool message right after the calls");
    wrong.parts = &hollow;
    g4_expect_prompt(&wrong, 1, &plain, "messages[0] part 0: a media part without its data");
    wrong = (g4_message) { .role = G4_ROLE_OTHER };
    g4_expect_prompt(&wrong, 1, &plain, "messages[0]: no such role");
    wrong = (g4_message) { .role = G4_ROLE_TOOL, .parts = &stranger, .n_parts = 1 };
    g4_message pair[2] = { m[2], wrong };
    g4_expect_prompt(pair, 2, &plain,
                     "messages[1] part 0: this tool result answers no call: give its name, or the id of a call of the "
                     "model message before it");
    plain.tools = "[{\"function\": 3}]";
    g4_expect_prompt(m, 1, &plain, "tools[0].function: expected an object, found a number");
    plain.tools = "[";
    g4_expect_prompt(m, 1, &plain, "tools: JSON, line 1 column 2: expected a value, found the end");
    plain.template_name = "chatml";
    g4_expect_prompt(m, 1, &plain,
                     "no chat template named \"chatml\": there are 31b-2026-07, e2b-2026-07 and 31b-2026-04");
    g4_expect_prompt(m, 1, NULL,
                     "this model has no chat template: it is not instruction tuned (a template can be named)");
}

static void g4_test_json(void)
{
#define G4_HEAD "<bos><|turn>user\nHi<turn|>\n"
#define G4_TURN "<|turn>model\n<|channel>thought\n<channel|>"
    g4_expect_json("[{\"role\": \"user\", \"content\": \"Hi\"}]", 0, G4_HEAD);
    g4_expect_json("[{\"role\": \"user\", \"content\": \"Hi\"}]", 1, G4_HEAD G4_TURN);
    g4_expect_json("{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"add_generation_prompt\": false}", 1,
                   G4_HEAD);
    g4_expect_json(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], \"add_generation_prompt\": true, \"tools\": null}",
        0, G4_HEAD G4_TURN);
    const char *calls = "[{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": null, "
                        "\"tool_calls\": [{\"id\": \"1\", "
                        "\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": \"{\\\"b\\\": "
                        "1}\"}}]}, {\"role\": \"tool\", "
                        "\"tool_call_id\": \"1\", \"content\": \"ok\"}]";
    g4_expect_json(calls, 1,
                   G4_HEAD "<|turn>model\n<|tool_call>call:f{b:1}<tool_call|><|tool_response>response:f{value:<|\"|>ok<"
                           "|\"|>}<tool_response|>");
    g4_expect_json(calls, 0, "messages[1] (assistant): arguments of a tool call must be a JSON object, not a string");
    g4_expect_json(
        "[{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": \"{x\"}}]}]", 1,
        "<bos><|turn>model\n<|tool_call>call:f{{x}<tool_call|><|tool_response>");
    g4_expect_json("{}", 0, "messages must be a list of objects");
    g4_expect_json("3", 0, "a conversation must be a list of messages, or an object with messages");
    g4_expect_json("[{\"role\": \"user\"},\n 7]", 0, "messages[1]: a message must be an object");
    g4_expect_json("[{\"content\": \"x\"}]", 0, "messages[0]: a message must have a role");
    g4_expect_json("[{\"role\": \"user\"},\n {]", 0, "JSON, line 2 column 3: expected a name in double quotes");

    /* where media come from */
    const char *media = "[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\", \"image_url\": {\"url\": "
                        "\"a.png\"}}, {\"type\": \"text\", "
                        "\"text\": \"x\"}, {\"type\": \"image_url\", \"image_url\": {\"url\": "
                        "\"data:image/png;base64,aGVs bG8=\"}}, {\"type\": "
                        "\"input_audio\", \"input_audio\": {\"data\": \"aGk\", \"format\": \"wav\"}}, {\"type\": "
                        "\"video\", \"video\": \"v.mp4\"}, "
                        "{\"type\": \"image\"}, {\"type\": \"image\", \"url\": \"data:image/png,xx\"}, {\"type\": "
                        "\"image\", \"base64\": \"a\"}]}]";
    g4_error err = { 0 };
    g4_chat *c;
    g4_chat_options opt = { .template_name = "e2b-2026-07", .openai = 1 };
    G4_EXPECT(g4_chat_parse(&c, NULL, media, strlen(media), &opt, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(g4_chat_n_media(c) == 7, "%d media", g4_chat_n_media(c));
    g4_chat_medium d;
    G4_EXPECT(g4_chat_media(c, 0, &d, &err) == G4_OK && d.kind == G4_PART_IMAGE && d.source != NULL &&
                  strcmp(d.source, "a.png") == 0,
              "path");
    G4_EXPECT(g4_chat_media(c, 1, &d, &err) == G4_OK && d.source == NULL && d.size == 5 &&
                  memcmp(d.data, "hello", 5) == 0,
              "data URL");
    G4_EXPECT(g4_chat_media(c, 2, &d, &err) == G4_OK && d.kind == G4_PART_AUDIO && d.size == 2 &&
                  memcmp(d.data, "hi", 2) == 0,
              "base64");
    G4_EXPECT(g4_chat_media(c, 3, &d, &err) == G4_OK && d.kind == G4_PART_VIDEO && strcmp(d.source, "v.mp4") == 0 &&
                  !d.is_set,
              "video");
    G4_EXPECT(g4_chat_media(c, 4, &d, &err) == G4_OK && d.source == NULL && d.data == NULL, "no source");
    G4_EXPECT(g4_chat_media(c, 5, &d, &err) == G4_OK && d.size == 2 && memcmp(d.data, "xx", 2) == 0, "%s", err.message);
    G4_EXPECT(g4_chat_media(c, 6, &d, &err) == G4_ERR_FORMAT && strstr(err.message, "messages[0]") != NULL, "%s",
              err.message);
    G4_EXPECT(g4_chat_media(c, 7, &d, &err) == G4_ERR_ARGUMENT, "out of range");
    g4_image image = { 0 };
    G4_EXPECT(g4_chat_set_image(c, 2, &image, &err) == G4_ERR_ARGUMENT, "a picture for sound");
    G4_EXPECT(g4_chat_set_image(c, 0, &image, &err) == G4_OK && g4_chat_media(c, 0, &d, &err) == G4_OK && d.is_set,
              "set");
    g4_chat_close(c);
}

/* Each allocation of a large enough conversation fails once. */
static void g4_test_memory(void)
{
    size_t size;
    char *data = g4_read_all("tests/data/chat_render.jsonl", &size);
    G4_EXPECT(data != NULL, "tests/data/chat_render.jsonl is missing");
    if (data == NULL) return;
    g4_failing f = { 0, -1, 0 };
    g4_allocator al = g4_failing_allocator(&f);
    int checked = 0;
    for (char *p = data, *end; p < data + size && checked < 12; p = end + 1) {
        end = memchr(p, '\n', (size_t)(data + size - p));
        g4_json *doc, *tools;
        if (g4_json_parse(&doc, NULL, p, (size_t)(end - p), NULL) != G4_OK) continue;
        tools = (g4_json *)(uintptr_t)g4_json_get(doc, "tools");
        if (tools != NULL && g4_json_get(doc, "prompt")->kind == G4_JSON_STRING) {
            checked++;
            for (long k = 0; k < 2000; k++) {
                f = (g4_failing) { 0, k, 0 };
                g4_chat *c;
                g4_chat_options opt = { .template_name = g4_json_get(doc, "template")->text };
                g4_status st = g4_chat_parse_with(&c, &al, p, (size_t)(end - p), &opt, NULL);
                g4_chat_close(c);
                if (f.live != 0 || (f.calls > k) != (st == G4_ERR_MEMORY))
                    G4_EXPECT(0, "allocation %ld: status %d, %ld live", k, st, f.live);
                if (f.calls <= k) break;
            }
        }
        g4_json_free(NULL, doc);
    }
    G4_EXPECT(checked == 12, "%d conversations with tools", checked);
    free(data);
}

int main(void)
{
    G4_EXPECT(g4_check_lines("tests/data/chat_render.jsonl"), "tests/data/chat_render.jsonl is missing");
    const char *const shared[] = { "chat", "chat_e2b", "chat_2026-04" };
    for (int i = 0; i < 3; i++) {
        char path[128];
        snprintf(path, sizeof path, "../shared/gemma4-tokenizer/examples/%s.jsonl", shared[i]);
        if (!g4_check_lines(path)) G4_SKIP("no examples in ../shared");
    }
    g4_test_messages();
    g4_test_json();
    g4_test_memory();
    return g4_test_end();
}
