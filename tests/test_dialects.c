/* Requests of /v1/messages, /v1/responses and /v1/completions: what they become, and that what is wrong is refused
 * under the names of the client; answers in both other dialects, whole and as events, byte for byte. */
#include <math.h>
#include <stdlib.h>

#include "answers.h"
#include "failing.h"
#include "fuzz/fuzz_dialects.c"
#include "replay.h"
#include "test.h"

/* ---- Requests -------------------------------------------------------------------------------------- */

/* The prompt of a request, or why it is refused. */
static void g4_expect_prompt(g4_dialect dialect, const char *json, const char *want, int line)
{
    g4_error err = { 0 };
    g4_fault fault;
    g4_request *r;
    g4_chat *c = NULL;
    const g4_chat_options opt = { .template_name = "31b-2026-07" };
    g4_status st = g4_request_read_as(&r, dialect, json, strlen(json), NULL, &fault, &err);
    if (st == G4_OK) st = g4_request_chat(&c, NULL, r, &opt, &fault, &err);
    const char *got = st == G4_OK ? g4_chat_text(c, NULL) : err.message;
    G4_EXPECT(strcmp(got, want) == 0, "line %d: %s: got\n%s\nwant\n%s", line, json, got, want);
    if (st == G4_ERR_ARGUMENT && strchr(want, ':') != NULL) /* the message begins with the member */
        G4_EXPECT(strncmp(want, fault.param, strlen(fault.param)) == 0 && want[strlen(fault.param)] == ':',
                  "line %d: param is \"%s\"", line, fault.param);
    if (r != NULL) G4_EXPECT(g4_request_get(r)->dialect == dialect, "line %d: another dialect", line);
    g4_chat_close(c);
    g4_request_close(r);
}
#define G4_MESSAGES(members, want) g4_expect_prompt(G4_DIALECT_ANTHROPIC, "{" members "}", want, __LINE__)
#define G4_TURNS(turns, want) G4_MESSAGES("\"messages\":[" turns "]", want)
#define G4_INPUT(members, want) g4_expect_prompt(G4_DIALECT_RESPONSES, "{" members "}", want, __LINE__)
#define G4_ITEMS(items, want) G4_INPUT("\"input\":[" items "]", want)
#define G4_USER(content) "{\"role\":\"user\",\"content\":" content "}"
#define G4_MODEL(content) "{\"role\":\"assistant\",\"content\":" content "}"
#define G4_BEGIN "<bos><|turn>user\n"
#define G4_END "<turn|>\n<|turn>model\n<|channel>thought\n<channel|>"

static void g4_test_messages(void)
{
    G4_TURNS(G4_USER("\"hi\""), G4_BEGIN "hi" G4_END);
    G4_TURNS(G4_USER("[{\"type\":\"text\",\"text\":\"a\",\"cache_control\":{\"type\":\"ephemeral\"}}]"),
             G4_BEGIN "a" G4_END);
    G4_MESSAGES("\"system\":\"Be brief.\",\"messages\":[" G4_USER("\"hi\"") "]",
                "<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\nhi" G4_END);
    G4_MESSAGES(
        "\"system\":[{\"type\":\"text\",\"text\":\"A\"},{\"type\":\"text\",\"text\":\"B\"}],\"messages\":[" G4_USER(
            "\"hi\"") "]",
        "<bos><|turn>system\nA\nB<turn|>\n<|turn>user\nhi" G4_END);
    G4_TURNS(G4_USER("[{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":\"image/png\",\"data\":"
                     "\"aGk=\"}},{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"image\",\"source\":{\"type\":\"url\","
                     "\"url\":\"data:,x\"}}]"),
             G4_BEGIN "<|image|>a<|image|>" G4_END);
    /* calls and their results, in whatever order the user's blocks stand; what follows them */
    G4_TURNS(
        G4_USER("\"hi\"") "," G4_MODEL(
            "[{\"type\":\"thinking\",\"thinking\":\"Hm\",\"signature\":\"x\"},{\"type\":"
            "\"redacted_thinking\",\"data\":\"x\"},{\"type\":\"text\",\"text\":\"Well.\"}"
            ",{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"f\",\"input\":{\"a\":1}},"
            "{\"type\":\"tool_use\",\"id\":\"t2\",\"name\":\"g\",\"input\":{}}]") "," G4_USER("[{\"type\":\"text\","
                                                                                              "\"text\":\"so?\"},{"
                                                                                              "\"type\":\"tool_"
                                                                                              "result\",\"tool_use_"
                                                                                              "id\":\"t2\",\"content\":"
                                                                                              "\"two\"},{\"type\":"
                                                                                              "\"tool_result\",\"tool_"
                                                                                              "use_id\":\"t1\","
                                                                                              "\"content\":[{\"type\":"
                                                                                              "\"text\",\"text\":"
                                                                                              "\"one\"}],\"is_error\":"
                                                                                              "true}]"),
        G4_BEGIN "hi<turn|>\n<|turn>model\n<|tool_call>call:f{a:1}<tool_call|><|tool_call>call:g{}<tool_call|>"
                 "<|tool_response>response:g{value:<|\"|>two<|\"|>}<tool_response|><|tool_response>response:f{"
                 "value:<|\"|>{\"error\":\"one\"}<|\"|>}<tool_response|>Well.<turn|>\n<|turn>user\nso?" G4_END);
    G4_TURNS(G4_USER("\"hi\"") "," G4_MODEL(
                 "[{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{}}]") "," G4_USER("[{\"type\":\"tool_"
                                                                                                   "result\",\"tool_"
                                                                                                   "use_id\":\"t\"}]"),
             G4_BEGIN "hi<turn|>\n<|turn>model\n<|tool_call>call:f{}<tool_call|><|tool_response>response:f{value:<|\"|>"
                      "<|\"|>}<tool_response|>");
    /* an answer that stands last is gone on with */
    G4_TURNS(G4_USER("\"hi\"") "," G4_MODEL("\"It is\""), G4_BEGIN "hi<turn|>\n<|turn>model\nIt is");
    G4_TURNS(G4_USER("\"hi\"") "," G4_MODEL("[{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{}}]"),
             "messages: the last message must be text of the assistant");
    /* names are the client's: of messages, blocks, tools and options */
    G4_MESSAGES("\"model\":\"m\"", "messages: expected a list, found nothing");
    G4_TURNS("", "messages: expected at least one message, found none");
    G4_TURNS("1", "messages[0]: expected an object, found a number");
    G4_TURNS("{\"role\":\"system\",\"content\":\"x\"}", "messages[0].role: expected user or assistant, found system");
    G4_TURNS("{\"role\":\"user\"}", "messages[0].content: expected text or a list of blocks, found nothing");
    G4_TURNS(G4_USER("[1]"), "messages[0].content[0]: expected an object with a type, found a number");
    G4_TURNS(G4_USER("[{\"type\":\"document\"}]"),
             "messages[0].content[0].type: expected text, image or tool_result, found document");
    G4_TURNS(G4_USER("[{\"type\":\"text\"}]"), "messages[0].content[0].text: expected text, found nothing");
    G4_TURNS(G4_USER("[{\"type\":\"image\",\"source\":{\"type\":\"file\"}}]"),
             "messages[0].content[0].source.type: expected base64 or url, found file");
    G4_TURNS(G4_USER("[{\"type\":\"image\"}]"), "messages[0].content[0].source: expected base64 or url, found nothing");
    G4_TURNS(G4_USER("[{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"data\":1}}]"),
             "messages[0].content[0].source.data: expected text, found a number");
    G4_MESSAGES("\"system\":\"x\",\"messages\":[" G4_USER(
                    "[{\"type\":\"tool_result\",\"tool_use_id\":\"t\",\"content\":\"x\"}]") "]",
                "messages[0].content[0].tool_use_id: the result of call \"t\" follows no message with calls");
    G4_TURNS(
        G4_USER("\"x\"") "," G4_MODEL("[{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{}}]") "," G4_USER(
            "[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"tool_result\",\"tool_use_id\":\"u\"}]"),
        "messages[2].content[1].tool_use_id: messages[1] makes no call \"u\"");
    G4_MESSAGES("\"system\":\"x\",\"messages\":[" G4_USER("\"x\"") "," G4_MODEL(
                    "[{\"type\":\"tool_use\",\"id\":\"t\",\"name\":"
                    "\"f\",\"input\":{}}]") "," G4_USER("[{\"type\":\"tool_result\",\"tool_use_id\":\"u\"}]") "]",
                "messages[2].content[0].tool_use_id: messages[1] makes no call \"u\"");
    G4_TURNS(G4_USER("[{\"type\":\"tool_result\",\"tool_use_id\":\"t\",\"content\":[{\"type\":\"audio\"}]}]"),
             "messages[0].content[0].content[0].type: expected text, image or tool_result, found audio");
    G4_TURNS(G4_USER("[{\"type\":\"tool_result\",\"tool_use_id\":\"t\",\"is_error\":1}]"),
             "messages[0].content[0].is_error: expected true or false, found a number");
    G4_TURNS(G4_MODEL("[{\"type\":\"server_tool_use\"}]"),
             "messages[0].content[0].type: expected text, thinking or tool_use, found server_tool_use");
    G4_TURNS(G4_MODEL("[{\"type\":\"tool_use\",\"name\":\"f\"}]"),
             "messages[0].content[0].id: expected text, found nothing");
    G4_TURNS(G4_MODEL("[{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":[]}]"),
             "messages[0].content[0].input: expected an object, found a list");
    G4_MESSAGES("\"system\":1,\"messages\":[" G4_USER("\"hi\"") "]",
                "system: expected text or a list of blocks, found a number");
    G4_MESSAGES("\"system\":[{\"type\":\"image\"}],\"messages\":[" G4_USER("\"hi\"") "]",
                "system[0].type: expected text, found image");
    G4_MESSAGES("\"system\":\"x\",\"messages\":[" G4_USER("\" \"") "]",
                "messages[0].content: the user says and shows nothing: there is nothing to answer");
}

/* Media bear the number of the client's message. */
static void g4_test_media(void)
{
    g4_error err = { 0 };
    g4_request *r;
    g4_chat *c = NULL;
    g4_chat_medium m = { 0 };
    const g4_chat_options opt = { .template_name = "31b-2026-07" };
    const char *json = "{\"system\":\"x\",\"messages\":[" G4_USER("\"a\"") "," G4_MODEL("\"b\"") "," G4_USER(
        "[{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":\"image/png\",\"data\":\"*\"}}]") "]}";
    G4_EXPECT(g4_request_read_as(&r, G4_DIALECT_ANTHROPIC, json, strlen(json), NULL, NULL, &err) == G4_OK, "%s",
              err.message);
    G4_EXPECT(g4_request_chat(&c, NULL, r, &opt, NULL, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(g4_chat_media(c, 0, &m, &err) == G4_ERR_FORMAT &&
                  strcmp(err.message, "messages[2]: malformed base64") == 0,
              "%s", err.message);
    g4_chat_close(c);
    g4_request_close(r);
}

#define G4_OPTION(member, want) G4_MESSAGES("\"messages\":[" G4_USER("\"hi\"") "]," member, want)

static void g4_test_message_options(void)
{
    G4_OPTION("\"temperature\":\"hot\"", "temperature: expected a number, found text");
    G4_OPTION("\"stop_sequences\":[1]", "stop_sequences: expected a list of texts, found a number in it");
    G4_OPTION("\"tools\":[{\"name\":\"f\",\"input_schema\":1}]",
              "tools[0].input_schema: expected an object, found a number");
    G4_OPTION("\"tools\":[{\"input_schema\":{}}]", "tools[0]: expected an object, found nothing");
    G4_OPTION("\"tools\":[{\"name\":\"\"}]", "tools[0].name: expected the name of a function, found empty text");
    G4_OPTION("\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"web_search\"}]",
              "tools[0].type: expected custom, found web_search_20250305");
    G4_OPTION("\"tool_choice\":{\"type\":\"some\"}", "tool_choice.type: expected auto, any, tool or none, found some");
    G4_OPTION("\"tool_choice\":{\"type\":\"tool\"}", "tool_choice.name: expected text, found nothing");
    G4_OPTION("\"tool_choice\":{\"type\":\"tool\",\"name\":\"f\"}", "tool_choice: no tool is named \"f\"");
    G4_OPTION("\"tool_choice\":{\"type\":\"any\"}", "tool_choice: a call is required, and there are no tools");
    G4_OPTION("\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":1}",
              "tool_choice.disable_parallel_tool_use: expected true or false, found a number");
    G4_OPTION("\"thinking\":{\"type\":\"on\"}", "thinking.type: expected enabled, adaptive or disabled, found on");
    G4_OPTION("\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":0}",
              "thinking.budget_tokens: expected a number of tokens, found 0");
    G4_OPTION("\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024.5}",
              "thinking.budget_tokens: expected a number of tokens, found 1024.5");
    G4_OPTION("\"output_config\":{\"format\":{\"type\":\"text\"}}",
              "output_config.format: expected json_schema with a schema, found an object");
    g4_error err = { 0 };
    g4_request *r;
    const char *json =
        "{\"model\":\"m\",\"max_tokens\":50,\"stream\":true,\"temperature\":0.5,\"top_p\":0.9,\"top_k\":40,\"stop_"
        "sequences\":[\"a\",\"b\"],\"metadata\":{\"user_id\":\"x\"},\"n\":7,\"thinking\":{\"type\":\"enabled\","
        "\"budget_"
        "tokens\":2048},\"tools\":[{\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}},{"
        "\"type\":"
        "\"custom\",\"name\":\"g\",\"input_schema\":{\"type\":\"object\"}}],\"tool_choice\":{\"type\":\"tool\","
        "\"name\":"
        "\"g\",\"disable_parallel_tool_use\":true},\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":{"
        "\"type\":\"object\"}}},\"messages\":[" G4_USER("\"hi\"") "]}";
    G4_EXPECT(g4_request_read_as(&r, G4_DIALECT_ANTHROPIC, json, strlen(json), NULL, NULL, &err) == G4_OK, "%s",
              err.message);
    const g4_request_info *i = g4_request_get(r);
    if (i != NULL) {
        G4_EXPECT(strcmp(i->model, "m") == 0 && i->max_tokens == 50 && i->stream && i->temperature == 0.5 &&
                      i->top_p == 0.9 && i->top_k == 40 && i->n_stop == 2 && strcmp(i->stop[1], "b") == 0,
                  "sampling");
        G4_EXPECT(i->thinking == 1 && i->think_budget == 2048 && i->one_call && i->tool_choice == G4_TOOLS_NAMED &&
                      strcmp(i->tool_name, "g") == 0 && i->format == G4_FORMAT_SCHEMA && i->is_strict,
                  "thinking %d of %d, choice %d", i->thinking, i->think_budget, (int)i->tool_choice);
        G4_EXPECT(strcmp(i->tools,
                         "[{\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{\"type\":\"object\""
                         "}}},{\"function\":{\"type\":null,\"name\":\"g\",\"parameters\":{\"type\":\"object\"}}}"
                         "]") == 0,
                  "%s", i->tools);
    }
    g4_request_close(r);
    json = "{\"thinking\":{\"type\":\"disabled\",\"budget_tokens\":99},\"tool_choice\":{\"type\":\"none\"},"
           "\"messages\":[" G4_USER("\"hi\"") "]}";
    G4_EXPECT(g4_request_read_as(&r, G4_DIALECT_ANTHROPIC, json, strlen(json), NULL, NULL, &err) == G4_OK, "%s",
              err.message);
    i = g4_request_get(r);
    G4_EXPECT(i != NULL && i->thinking == 0 && i->think_budget == 0 && i->tool_choice == G4_TOOLS_NONE && !i->one_call,
              "nothing is asked for");
    g4_request_close(r);
}

static void g4_test_items(void)
{
    G4_INPUT("\"input\":\"hi\"", G4_BEGIN "hi" G4_END);
    G4_INPUT("\"input\":\"hi\",\"instructions\":\"Be brief.\"",
             "<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\nhi" G4_END);
    G4_ITEMS(G4_USER("\"hi\""), G4_BEGIN "hi" G4_END);
    G4_ITEMS("{\"type\":\"message\",\"role\":\"developer\",\"content\":\"A\"}," G4_USER(
                 "[{\"type\":\"input_text\",\"text\":\"a\"},{\"type\":\"input_image\",\"image_url\":\"data:,x\"}]"),
             "<bos><|turn>system\nA<turn|>\n<|turn>user\na<|image|>" G4_END);
    /* items of the model that follow each other are one turn */
    G4_ITEMS(
        G4_USER("\"hi\"") ",{\"type\":\"reasoning\",\"id\":\"rs\",\"summary\":[],\"content\":[{\"type\":\"reasoning_"
                          "text\",\"text\":\"Hm\"}]},{\"type\":\"message\",\"id\":\"msg\",\"role\":\"assistant\","
                          "\"status\":\"completed\",\"content\":[{\"type\":\"output_text\",\"text\":\"Well.\","
                          "\"annotations\":[]}]},{\"type\":\"function_call\",\"call_id\":\"c1\",\"name\":\"f\","
                          "\"arguments\":\"{\\\"a\\\":1}\"},{\"type\":\"function_call\",\"call_id\":\"c2\",\"name\":"
                          "\"g\",\"arguments\":\"{}\"},{\"type\":\"function_call_output\",\"call_id\":\"c2\","
                          "\"output\":\"two\"},{\"type\":\"function_call_output\",\"call_id\":\"c1\",\"output\":[{"
                          "\"type\":\"input_text\",\"text\":\"one\"}]}," G4_USER("\"so?\""),
        G4_BEGIN "hi<turn|>\n<|turn>model\n<|tool_call>call:f{a:1}<tool_call|><|tool_call>call:g{}<tool_call|>"
                 "<|tool_response>response:g{value:<|\"|>two<|\"|>}<tool_response|><|tool_response>response:f{"
                 "value:<|\"|>one<|\"|>}<tool_response|>Well.<turn|>\n<|turn>user\nso?" G4_END);
    G4_ITEMS(G4_USER("\"a\"") "," G4_MODEL("\"b\"") "," G4_USER("\"c\""),
             G4_BEGIN "a<turn|>\n<|turn>model\nb<turn|>\n<|turn>user\nc" G4_END);
    /* what is wrong */
    G4_INPUT("\"model\":\"m\"", "input: expected text or a list of items, found nothing");
    G4_ITEMS("", "input: expected at least one message, found none");
    G4_INPUT("\"input\":\" \"", "input: the user says and shows nothing: there is nothing to answer");
    G4_ITEMS("1", "input[0]: expected an object, found a number");
    G4_ITEMS("{\"type\":\"item_reference\",\"id\":\"x\"}",
             "input[0].type: expected message, function_call, function_call_output or reasoning, found item_reference");
    G4_ITEMS("{\"role\":\"wizard\",\"content\":\"x\"}",
             "input[0].role: expected system, developer, user, assistant or tool, found \"wizard\"");
    G4_INPUT("\"instructions\":\"x\",\"input\":[" G4_USER("\"hi\"") "," G4_USER("[{\"type\":\"input_file\"}]") "]",
             "input[1].content[0].type: content parts of type \"input_file\" are not understood; text, image_url, "
             "input_audio, video_url are");
    G4_ITEMS("{\"type\":\"function_call\",\"call_id\":\"c\",\"name\":\"f\"}",
             "input[0].arguments: expected text, found nothing");
    G4_ITEMS("{\"type\":\"function_call_output\",\"call_id\":\"c\",\"output\":\"x\"}",
             "input[0].call_id: the result of call \"c\" follows no message with calls");
    G4_ITEMS("{\"type\":\"function_call_output\",\"call_id\":\"c\"}",
             "input[0].output: expected text or a list of parts, found nothing");
    G4_ITEMS("{\"type\":\"reasoning\",\"summary\":[1]}", "input[0].summary[0].text: expected text, found nothing");
    G4_INPUT("\"input\":\"x\",\"previous_response_id\":\"resp_1\"",
             "previous_response_id: expected none: nothing is kept here, all of a conversation is in input");
    G4_INPUT("\"input\":\"x\",\"conversation\":\"c\"",
             "conversation: expected none: nothing is kept here, all of a conversation is in input");
    G4_INPUT("\"input\":\"x\",\"background\":true",
             "background: expected false: an answer goes to whoever waits for it");
    G4_INPUT("\"input\":\"x\",\"instructions\":[]", "instructions: expected text, found a list");
    G4_INPUT("\"input\":\"x\",\"max_output_tokens\":0",
             "max_output_tokens: expected at least 1 token, or -1 for no limit, found 0");
    G4_INPUT("\"input\":\"x\",\"reasoning\":{\"effort\":\"lots\"}",
             "reasoning.effort: expected none, minimal, low, medium, high, xhigh or max, found \"lots\"");
    G4_INPUT("\"input\":\"x\",\"text\":{\"format\":{\"type\":\"xml\"}}",
             "text.format.type: expected text, json_object or json_schema, found \"xml\"");
    G4_INPUT("\"input\":\"x\",\"text\":{\"format\":{\"type\":\"json_schema\",\"schema\":1}}",
             "text.format.schema: expected an object, found a number");
    G4_INPUT("\"input\":\"x\",\"tools\":[{\"type\":\"web_search\"}]",
             "tools[0].type: expected \"function\", found \"web_search\"");
    G4_INPUT("\"input\":\"x\",\"include\":1", "include: expected a list, found a number");
    G4_INPUT("\"input\":\"x\",\"include\":[1]", "include: expected a list of texts, found a number in it");
    G4_INPUT("\"input\":\"x\",\"background\":\"yes\"", "background: expected true or false, found text");
    G4_INPUT("\"input\":\"x\",\"reasoning\":\"high\"", "reasoning: expected an object, found text");
    g4_error err = { 0 };
    g4_request *r;
    const char *json =
        "{\"model\":\"m\",\"input\":\"hi\",\"stream\":true,\"store\":true,\"max_output_tokens\":9,\"temperature\":0.5,"
        "\"top_"
        "p\":0.9,\"reasoning\":{\"effort\":\"low\"},\"text\":{\"format\":{\"type\":\"json_schema\",\"name\":\"n\","
        "\"schema\""
        ":{\"type\":\"object\"},\"strict\":true}},\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"parameters\":{"
        "\"type\":"
        "\"object\"},\"strict\":true}],\"tool_choice\":{\"type\":\"function\",\"name\":\"f\"},\"parallel_tool_calls\":"
        "false,\"include\":[\"message.output_text.logprobs\"],\"top_logprobs\":2,\"stop\":[\"x\"]}";
    G4_EXPECT(g4_request_read_as(&r, G4_DIALECT_RESPONSES, json, strlen(json), NULL, NULL, &err) == G4_OK, "%s",
              err.message);
    const g4_request_info *i = g4_request_get(r);
    if (i != NULL) {
        G4_EXPECT(i->stream && i->max_tokens == 9 && i->temperature == 0.5 && i->top_p == 0.9 && i->thinking == 1 &&
                      i->think_budget == 1024 && i->format == G4_FORMAT_SCHEMA && i->is_strict &&
                      strcmp(i->schema_name, "n") == 0 && i->tool_choice == G4_TOOLS_NAMED && i->one_call &&
                      i->want_logprobs && i->n_top == 2 && i->n_stop == 0,
                  "options of %s", json);
        G4_EXPECT(strstr(i->repeats, ",\"max_output_tokens\":9,\"metadata\":{},\"parallel_tool_calls\":false,") !=
                          NULL &&
                      strstr(i->repeats, "\"tools\":[{\"type\":\"function\",\"name\":\"f\",") != NULL,
                  "%s", i->repeats);
    }
    g4_request_close(r);
}

/* A prompt of /v1/completions in all its forms, as "text" or [ids], one after the other. */
static void g4_expect_prompts(const char *members, const char *want, int line)
{
    g4_error err = { 0 };
    g4_fault fault;
    g4_request *r;
    g4_buf json = { 0 }, got = { 0 };
    g4_buf_fmt(&json, "{%s}", members);
    if (g4_request_read_as(&r, G4_DIALECT_COMPLETIONS, json.data, json.len, NULL, &fault, &err) == G4_OK) {
        const g4_request_info *i = g4_request_get(r);
        for (int k = 0; k < i->n_prompts; k++) {
            const g4_request_prompt *p = &i->prompts[k];
            g4_buf_str(&got, k > 0 ? " " : "");
            if (p->text != NULL) g4_buf_fmt(&got, "%zu:%s", p->len, p->text);
            for (int t = 0; p->text == NULL && t < p->n_tokens; t++)
                g4_buf_fmt(&got, t > 0 ? ",%d" : "[%d", (int)p->tokens[t]);
            if (p->text == NULL) g4_buf_str(&got, "]");
        }
        g4_buf_str(&got, i->prompt != NULL ? " one" : "");
        g4_buf_str(&got, i->echo ? " echo" : "");
        G4_EXPECT(i->is_completion && i->dialect == G4_DIALECT_COMPLETIONS, "line %d: no completion", line);
    } else {
        g4_buf_str(&got, err.message);
    }
    G4_EXPECT(strcmp(got.data, want) == 0, "line %d: got %s, want %s", line, got.data, want);
    g4_request_close(r);
    g4_buf_free(&json);
    g4_buf_free(&got);
}
#define G4_PROMPTS(members, want) g4_expect_prompts(members, want, __LINE__)

static void g4_test_prompts(void)
{
    G4_PROMPTS("\"prompt\":\"ab\",\"logprobs\":2", "2:ab one");
    G4_PROMPTS("\"prompt\":\"\",\"echo\":true", "0: one echo");
    G4_PROMPTS("\"prompt\":[\"ab\"]", "2:ab one");
    G4_PROMPTS("\"prompt\":[\"ab\",\"c\"]", "2:ab 1:c");
    G4_PROMPTS("\"prompt\":[2,262143]", "[2,262143]");
    G4_PROMPTS("\"prompt\":[[2],\"x\",[3,4]],\"n\":1", "[2] 1:x [3,4]");
    G4_PROMPTS("\"prompt\":[]", "prompt: expected text or ids of tokens, found an empty list");
    G4_PROMPTS("\"prompt\":[[]]", "prompt: expected text or ids of tokens, found an empty list");
    G4_PROMPTS("\"prompt\":[1,-1]", "prompt: expected ids of tokens, found -1");
    G4_PROMPTS("\"prompt\":[1,1.5]", "prompt: expected ids of tokens, found 1.5");
    G4_PROMPTS("\"prompt\":[1,\"x\"]", "prompt: expected ids of tokens, found text");
    G4_PROMPTS("\"prompt\":[\"x\",1]", "prompt: expected text or ids of tokens, found a number");
    G4_PROMPTS("\"prompt\":{}", "prompt: expected text or ids of tokens, found an object");
    G4_PROMPTS("\"prompt\":null", "prompt: expected by /v1/completions, found nothing");
    G4_PROMPTS("\"messages\":[]", "prompt: expected by /v1/completions, found nothing");
    G4_PROMPTS("\"prompt\":\"x\",\"suffix\":\"y\"", "suffix: expected none: text is continued at its end");
    g4_error err = { 0 };
    g4_request *r;
    const char *list = "[]";
    G4_EXPECT(g4_request_read_as(&r, G4_DIALECT_COMPLETIONS, list, 2, NULL, NULL, &err) == G4_ERR_ARGUMENT, "%s",
              err.message);
    G4_EXPECT(g4_request_read_as(&r, (g4_dialect)9, list, 2, NULL, NULL, &err) == G4_ERR_ARGUMENT, "%s", err.message);
}

/* ---- Answers --------------------------------------------------------------------------------------- */

static int g4_take(void *user, const void *data, size_t size)
{
    g4_buf_add(user, data, size);
    return 0;
}

static void g4_expect_text(const char *got, const char *want, int line)
{
    size_t i = 0;
    while (got[i] != '\0' && got[i] == want[i]) i++;
    G4_EXPECT(got[i] == want[i], "line %d: byte %zu: got\n%.300s\nwant\n%.300s", line, i, got + i, want + i);
}

/* A reply as a whole answer, and as events, which come in pieces up to a NULL. */
static void g4_expect_answer(g4_answer c, const char *reply, const char *whole, const char *const *events, int line)
{
    g4_error err = { 0 };
    g4_buf b = { 0 }, want = { 0 };
    g4_stream *s;
    g4_response *r;
    const g4_stream_options opt = { .answer = &c, .write = g4_take, .user = &b };
    G4_EXPECT(g4_stream_open(&s, &opt, NULL, &err) == G4_OK, "line %d: %s", line, err.message);
    G4_EXPECT(g4_response_new(&r, NULL, NULL, 0, g4_stream_part, s, &err) == G4_OK, "line %d: %s", line, err.message);
    g4_feed_all(r, reply, strlen(reply), 1000);
    G4_EXPECT(g4_response_finish(r, &err) == G4_OK, "line %d: %s", line, err.message);
    c.parts = g4_response_parts(r, &c.n_parts);
    G4_EXPECT(g4_stream_end(s, &c, &err) == G4_OK, "line %d: %s", line, err.message);
    while (*events != NULL) g4_buf_str(&want, *events++);
    g4_expect_text(b.data, want.data, line);
    g4_buf_free(&want);
    b.len = 0;
    G4_EXPECT(g4_answer_write(&c, g4_take, &b, NULL, &err) == G4_OK, "line %d: %s", line, err.message);
    g4_expect_text(b.data, whole, line);
    g4_stream_close(s);
    g4_response_close(r);
    g4_buf_free(&b);
}
#define G4_ANSWERS(c, reply, whole, ...)                                                                               \
    g4_expect_answer(c, reply, whole, (const char *const[]) { __VA_ARGS__, NULL }, __LINE__)

static g4_answer g4_known(g4_dialect dialect)
{
    return (g4_answer) { .id = 0xabc,
                         .created = 1700000000,
                         .model = "m",
                         .result = { .stop = G4_STOP_END, .n_tokens = 9, .seconds = 0.5 },
                         .prompt_tokens = 20,
                         .cached_tokens = 8,
                         .thought_tokens = 3,
                         .dialect = dialect };
}

#define G4_MSG                                                                                                         \
    "{\"id\":\"msg_0000000000000abc\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":["
#define G4_MSG_USAGE(n)                                                                                                \
    "\"usage\":{\"input_tokens\":12,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":8,\"output_"         \
    "tokens\":" #n "}"
#define G4_MSG_START                                                                                                   \
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":" G4_MSG                                      \
    "],\"stop_reason\":null,\"stop_sequence\":null," G4_MSG_USAGE(0) "}}\n\n"
#define G4_BLOCK(i, block)                                                                                             \
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":" #i ",\"content_block\":{" block   \
    "}}\n\n"
#define G4_BLOCK_DELTA(i, delta)                                                                                       \
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":" #i ",\"delta\":{" delta "}}\n\n"
#define G4_BLOCK_END(i) "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":" #i "}\n\n"
#define G4_MSG_END(reason, sequence)                                                                                   \
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"" reason                     \
    "\",\"stop_sequence\":" sequence                                                                                   \
    "}," G4_MSG_USAGE(9) "}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"

static void g4_test_blocks(void)
{
    g4_answer c = g4_known(G4_DIALECT_ANTHROPIC);
    G4_ANSWERS(
        c, "<|channel>thought\nHm\n<channel|>So \"it\" is.<|tool_call>call:f{a:1}<tool_call|>",
        G4_MSG "{\"type\":\"thinking\",\"thinking\":\"Hm\",\"signature\":\"\"},{\"type\":\"text\",\"text\":\"So "
               "\\\"it\\\" is.\"},{\"type\":\"tool_use\",\"id\":\"toolu_0000000000000abc_0\",\"name\":\"f\","
               "\"input\":{\"a\":1}}],\"stop_reason\":\"tool_use\",\"stop_sequence\":null," G4_MSG_USAGE(9) "}\n",
        G4_MSG_START G4_BLOCK(0, "\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"")
            G4_BLOCK_DELTA(0, "\"type\":\"thinking_delta\",\"thinking\":\"Hm\"")
                G4_BLOCK_DELTA(0, "\"type\":\"signature_delta\",\"signature\":\"\"") G4_BLOCK_END(0)
                    G4_BLOCK(1, "\"type\":\"text\",\"text\":\"\"")
                        G4_BLOCK_DELTA(1, "\"type\":\"text_delta\",\"text\":\"So \\\"it\\\" is.\"") G4_BLOCK_END(1)
                            G4_BLOCK(2, "\"type\":\"tool_use\",\"id\":\"toolu_0000000000000abc_0\",\"name\":\"f\","
                                        "\"input\":{}")
                                G4_BLOCK_DELTA(2, "\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"a\\\":1}"
                                                  "\"") G4_BLOCK_END(2) G4_MSG_END("tool_use", "null"));
    static const struct {
        g4_stop stop;
        const char *sequence, *whole, *events;
    } ends[] = {
        { G4_STOP_END, NULL, "\"end_turn\",\"stop_sequence\":null,", G4_MSG_END("end_turn", "null") },
        { G4_STOP_MAX_TOKENS, NULL, "\"max_tokens\",\"stop_sequence\":null,", G4_MSG_END("max_tokens", "null") },
        { G4_STOP_STRING, "x\"", "\"stop_sequence\",\"stop_sequence\":\"x\\\"\",",
          G4_MSG_END("stop_sequence", "\"x\\\"\"") },
        { G4_STOP_CONTEXT, NULL, "\"model_context_window_exceeded\",\"stop_sequence\":null,",
          G4_MSG_END("model_context_window_exceeded", "null") },
        { G4_STOP_REPEAT, NULL, "\"end_turn\",\"stop_sequence\":null,", G4_MSG_END("end_turn", "null") },
    };
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        char whole[512], events[2048];
        c.result.stop = ends[i].stop;
        c.result.stop_string = ends[i].sequence;
        snprintf(whole, sizeof whole, G4_MSG "],\"stop_reason\":%s" G4_MSG_USAGE(9) "}\n", ends[i].whole);
        snprintf(events, sizeof events, G4_MSG_START "%s", ends[i].events);
        G4_ANSWERS(c, "", whole, events);
    }
}

#define G4_RESP(status)                                                                                                \
    "{\"id\":\"resp_0000000000000abc\",\"object\":\"response\",\"created_at\":1700000000,\"status\":\"" status         \
    "\",\"model\":\"m\",\"background\":false,\"previous_response_id\":null,\"store\":false,\"instructions\":null,"     \
    "\"max_"                                                                                                           \
    "output_tokens\":null,\"metadata\":{},\"parallel_tool_calls\":true,\"reasoning\":{\"effort\":null,\"summary\":"    \
    "null}"                                                                                                            \
    ",\"temperature\":null,\"text\":{\"format\":{\"type\":\"text\"}},\"tool_choice\":\"auto\",\"tools\":[],\"top_p\":" \
    "null,\"truncation\":\"disabled\""
#define G4_RESP_USAGE                                                                                                  \
    ",\"usage\":{\"input_tokens\":20,\"input_tokens_details\":{\"cached_tokens\":8},\"output_tokens\":9,\"output_"     \
    "tokens"                                                                                                           \
    "_details\":{\"reasoning_tokens\":3},\"total_tokens\":29}}"
#define G4_RESP_OPEN G4_RESP("in_progress") ",\"error\":null,\"incomplete_details\":null,\"output\":[],\"usage\":null}"
#define G4_EVENT(n, name, more)                                                                                        \
    "event: response." name "\ndata: {\"type\":\"response." name "\",\"sequence_number\":" #n "," more "}\n\n"
#define G4_THOUGHT_ITEM(status, content)                                                                               \
    "{\"id\":\"rs_0000000000000abc_0\",\"type\":\"reasoning\",\"summary\":[],\"content\":[" content                    \
    "],\"status\":\"" status "\"}"
#define G4_THOUGHT(text) "{\"type\":\"reasoning_text\",\"text\":\"" text "\"}"
#define G4_TEXT_ITEM(status, content)                                                                                  \
    "{\"id\":\"msg_0000000000000abc_1\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[" content             \
    "],\"status\":\"" status "\"}"
#define G4_TEXT(text) "{\"type\":\"output_text\",\"text\":\"" text "\",\"annotations\":[],\"logprobs\":[]}"
#define G4_CALL_ITEM(status, arguments)                                                                                \
    "{\"id\":\"fc_0000000000000abc_2\",\"type\":\"function_call\",\"call_id\":\"call_0000000000000abc_0\",\"name\":"   \
    "\"f\","                                                                                                           \
    "\"arguments\":\"" arguments "\",\"status\":\"" status "\"}"
#define G4_OF(id, i) "\"item_id\":\"" id "\",\"output_index\":" #i
#define G4_IN(id, i) G4_OF(id, i) ",\"content_index\":0"
#define G4_RS "rs_0000000000000abc_0"
#define G4_M "msg_0000000000000abc_1"
#define G4_FC "fc_0000000000000abc_2"

static void g4_test_responses(void)
{
    g4_answer c = g4_known(G4_DIALECT_RESPONSES);
#define G4_WHOLE                                                                                                       \
    G4_RESP("completed")                                                                                               \
    ",\"error\":null,\"incomplete_details\":null,\"output\":[" G4_THOUGHT_ITEM(                                        \
        "completed",                                                                                                   \
        G4_THOUGHT("Hm")) "," G4_TEXT_ITEM("completed",                                                                \
                                           G4_TEXT("So.")) "," G4_CALL_ITEM("completed",                               \
                                                                            "{\\\"a\\\":1}") "]" G4_RESP_USAGE
    G4_ANSWERS(
        c, "<|channel>thought\nHm\n<channel|>So.<|tool_call>call:f{a:1}<tool_call|>", G4_WHOLE "\n",
        G4_EVENT(0, "created", "\"response\":" G4_RESP_OPEN), G4_EVENT(1, "in_progress", "\"response\":" G4_RESP_OPEN),
        G4_EVENT(2, "output_item.added", "\"output_index\":0,\"item\":" G4_THOUGHT_ITEM("in_progress", "")),
        G4_EVENT(3, "content_part.added", G4_IN(G4_RS, 0) ",\"part\":" G4_THOUGHT(""))
            G4_EVENT(4, "reasoning_text.delta", G4_IN(G4_RS, 0) ",\"delta\":\"Hm\""),
        G4_EVENT(5, "reasoning_text.done", G4_IN(G4_RS, 0) ",\"text\":\"Hm\""),
        G4_EVENT(6, "content_part.done", G4_IN(G4_RS, 0) ",\"part\":" G4_THOUGHT("Hm")) G4_EVENT(
            7, "output_item.done", "\"output_index\":0,\"item\":" G4_THOUGHT_ITEM("completed", G4_THOUGHT("Hm"))),
        G4_EVENT(8, "output_item.added", "\"output_index\":1,\"item\":" G4_TEXT_ITEM("in_progress", "")),
        G4_EVENT(9, "content_part.added", G4_IN(G4_M, 1) ",\"part\":" G4_TEXT(""))
            G4_EVENT(10, "output_text.delta", G4_IN(G4_M, 1) ",\"delta\":\"So.\",\"logprobs\":[]"),
        G4_EVENT(11, "output_text.done", G4_IN(G4_M, 1) ",\"text\":\"So.\",\"logprobs\":[]"),
        G4_EVENT(12, "content_part.done", G4_IN(G4_M, 1) ",\"part\":" G4_TEXT("So."))
            G4_EVENT(13, "output_item.done", "\"output_index\":1,\"item\":" G4_TEXT_ITEM("completed", G4_TEXT("So."))),
        G4_EVENT(14, "output_item.added", "\"output_index\":2,\"item\":" G4_CALL_ITEM("in_progress", "")),
        G4_EVENT(15, "function_call_arguments.delta", G4_OF(G4_FC, 2) ",\"delta\":\"{\\\"a\\\":1}\""),
        G4_EVENT(16, "function_call_arguments.done", G4_OF(G4_FC, 2) ",\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\""),
        G4_EVENT(17, "output_item.done", "\"output_index\":2,\"item\":" G4_CALL_ITEM("completed", "{\\\"a\\\":1}")),
        G4_EVENT(18, "completed", "\"response\":" G4_WHOLE));
    c.result.stop = G4_STOP_MAX_TOKENS;
#define G4_CUT                                                                                                         \
    G4_RESP("incomplete")                                                                                              \
    ",\"error\":null,\"incomplete_details\":{\"reason\":\"max_output_tokens\"},\"output\":[]" G4_RESP_USAGE
    G4_ANSWERS(c, "", G4_CUT "\n",
               G4_EVENT(0, "created", "\"response\":" G4_RESP_OPEN)
                   G4_EVENT(1, "in_progress", "\"response\":" G4_RESP_OPEN)
                       G4_EVENT(2, "incomplete", "\"response\":" G4_CUT));
    /* what the request said is said again */
    c.request = &(g4_request_info) { .repeats = ",\"tools\":[1]" };
    c.result.stop = G4_STOP_END;
    g4_buf b = { 0 };
    G4_EXPECT(g4_answer_write(&c, g4_take, &b, NULL, NULL) == G4_OK &&
                  strstr(b.data, ",\"tools\":[1],\"error\"") != NULL,
              "%s", b.data);
    g4_buf_free(&b);
}

static void g4_test_refusals(void)
{
    static const struct {
        g4_dialect dialect;
        g4_refusal why;
        const char *want, *event;
    } cases[] = {
        { G4_DIALECT_ANTHROPIC,
          { .status = G4_ERR_CONTEXT, .message = "too \"long\"", .param = "messages" },
          "{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"too \\\"long\\\"\"}}\n",
          "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"too "
          "\\\"long\\\"\"}}\n\n" },
        { G4_DIALECT_ANTHROPIC,
          { .http = 503, .message = "busy" },
          "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n",
          "event: error\ndata: "
          "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n" },
        { G4_DIALECT_ANTHROPIC,
          { .status = G4_ERR_MEMORY },
          "{\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"\"}}\n",
          "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"\"}}\n\n" },
        { G4_DIALECT_RESPONSES,
          { .status = G4_ERR_MEMORY, .message = "full" },
          "{\"error\":{\"message\":\"full\",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n",
          G4_EVENT(2, "failed",
                   "\"response\":" G4_RESP("failed") ",\"error\":{\"code\":\"server_error\",\"message\":\"full\"},"
                                                     "\"incomplete_details\":null,\"output\":[],\"usage\":null}") },
    };
    g4_error err = { 0 };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        g4_buf b = { 0 };
        const g4_answer c = g4_known(cases[i].dialect);
        const g4_stream_options opt = { .answer = &c, .write = g4_take, .user = &b };
        g4_stream *s;
        G4_EXPECT(g4_refusal_write(cases[i].dialect, &cases[i].why, g4_take, &b, NULL, &err) == G4_OK, "%s",
                  err.message);
        g4_expect_text(b.data, cases[i].want, __LINE__);
        b.len = 0;
        G4_EXPECT(g4_stream_open(&s, &opt, NULL, &err) == G4_OK, "%s", err.message);
        b.len = 0;
        G4_EXPECT(g4_stream_refuse(s, &cases[i].why, &err) == G4_OK, "%s", err.message);
        g4_expect_text(b.data, cases[i].event, __LINE__);
        g4_stream_close(s);
        g4_buf_free(&b);
    }
}

/* ---- No memory --------------------------------------------------------------------------------------- */

static void g4_test_memory(void)
{
    static const char *const requests[] = {
        [G4_DIALECT_ANTHROPIC] =
            "{\"system\":[{\"type\":\"text\",\"text\":\"a\"}],\"tools\":[{\"name\":\"f\",\"input_schema\":{}}],\"tool_"
            "choice"
            "\":{\"type\":\"tool\",\"name\":\"f\"},\"stop_sequences\":[\"x\"],\"messages\":[" G4_USER(
                "\"a\"") "," G4_MODEL("[{\"type\":\"thinking\",\"thinking\":\"x\"},{\"type\":\"tool_use\",\"id\":\"t\","
                                      "\"name\":\"f\",\"input\":{}}"
                                      "]") "," G4_USER("[{\"type\":\"tool_result\",\"tool_use_id\":\"t\",\"content\":"
                                                       "\"x\",\"is_error\":true}]") "]}",
        [G4_DIALECT_RESPONSES] =
            "{\"instructions\":\"x\",\"tools\":[{\"type\":\"function\",\"name\":\"f\"}],\"input\":[" G4_USER(
                "\"a\"") ",{\"type\":\"reasoning\",\"content\":[{\"text\":\"x\"}]},{\"type\":\"function_call\",\"call_"
                         "id\":"
                         "\"c\",\"name\":\"f\",\"arguments\":\"{}\"},{\"type\":\"function_call_output\",\"call_id\":"
                         "\"c\","
                         "\"output\":\"x\"}]}"
    };
    for (int d = G4_DIALECT_ANTHROPIC; d <= G4_DIALECT_RESPONSES; d++) {
        int is_done = 0;
        for (long k = 0; k < 300 && !is_done; k++) {
            g4_failing f = { 0, k, 0 };
            const g4_allocator al = g4_failing_allocator(&f);
            g4_request *r;
            g4_error err = { 0 };
            const g4_status st =
                g4_request_read_as(&r, (g4_dialect)d, requests[d], strlen(requests[d]), &al, NULL, &err);
            is_done = f.calls <= k;
            G4_EXPECT(st == (is_done ? G4_OK : G4_ERR_MEMORY), "dialect %d, allocation %ld: %s", d, k, err.message);
            g4_request_close(r);
            G4_EXPECT(f.live == 0, "dialect %d, allocation %ld: %ld blocks live", d, k, f.live);
        }
        G4_EXPECT(is_done, "dialect %d: more than 300 allocations", d);
    }
}

int main(void)
{
    g4_test_messages();
    g4_test_media();
    g4_test_message_options();
    g4_test_items();
    g4_test_prompts();
    g4_test_blocks();
    g4_test_responses();
    g4_test_refusals();
    g4_test_memory();
    G4_EXPECT(g4_replay("tests/fuzz/corpus_dialects", LLVMFuzzerTestOneInput, 20) > 50, "no corpus of dialects");
    return g4_test_end();
}
