/* Requests and answers in OpenAI's format: what each client sends is understood or refused by the name of its field;
 * media come from data and from files below one folder and nowhere else; reading is linear, needs little stack, and
 * leaves nothing behind when memory runs out; an answer has the shape that clients read. */
#define _GNU_SOURCE 1 /* mkdtemp, symlink under -std=c11 */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chat/chat.h"
#include "failing.h"
#include "fuzz/fuzz_messages.c"
#include "replay.h"
#include "test.h"

#define G4_TURN "<|turn>model\n<|channel>thought\n<channel|>"
#define G4_HI "{\"role\":\"user\",\"content\":\"hi\"}"
#define G4_HI_TEXT "<bos><|turn>user\nhi<turn|>\n"

/* The prompt of a request, or why it is refused. */
static void g4_expect_request(const char *json, const char *want, int line)
{
    g4_error err = { 0 };
    g4_fault fault;
    g4_request *r;
    g4_chat *c = NULL;
    const g4_chat_options opt = { .template_name = "31b-2026-07" };
    g4_status st = g4_request_read(&r, json, strlen(json), NULL, &fault, &err);
    if (st == G4_OK) st = g4_request_chat(&c, NULL, r, &opt, &fault, &err);
    const char *got = st == G4_OK ? g4_chat_text(c, NULL) : err.message;
    G4_EXPECT(strcmp(got, want) == 0, "line %d: %s: got\n%s\nwant\n%s", line, json, got, want);
    if (st == G4_ERR_ARGUMENT && strchr(want, ':') != NULL) /* the message begins with the field */
        G4_EXPECT(strncmp(want, fault.param, strlen(fault.param)) == 0, "line %d: param is \"%s\"", line, fault.param);
    g4_chat_close(c);
    g4_request_close(r);
}
#define G4_READS(messages, want) g4_expect_request("[" messages "]", want, __LINE__)
#define G4_REQUEST(json, want) g4_expect_request(json, want, __LINE__)
/* A whole request with this field in it. */
#define G4_FIELD_SAYS(field, want) g4_expect_request("{\"messages\":[" G4_HI "]," field "}", want, __LINE__)

/* ---- Messages ------------------------------------------------------------------------------------ */

static void g4_test_parts(void)
{
    G4_READS("{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"hi\"}]}", G4_HI_TEXT G4_TURN);
    G4_READS(
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"input_image\",\"image_url\":"
        "\"data:,x\"},{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:,x\",\"detail\":\"low\"}},{\"type\":"
        "\"input_audio\",\"input_audio\":{\"data\":\"aGk=\",\"format\":\"wav\"}},{\"type\":\"audio_url\",\"audio_url\":"
        "{\"url\":\"data:,x\"}},{\"type\":\"video_url\",\"video_url\":{\"url\":\"data:,x\"}},{\"type\":\"image\"}]}",
        "<bos><|turn>user\na<|image|><|image|><|audio|><|audio|><|video|><|image|><turn|>\n" G4_TURN);
    G4_READS("{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"Be brief.\"}]}," G4_HI,
             "<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\nhi<turn|>\n" G4_TURN);
    G4_READS("{\"role\":\"developer\",\"content\":\"A\"}," G4_HI ",{\"role\":\"developer\",\"content\":\"B\"}",
             "<bos><|turn>system\nA<turn|>\n<|turn>user\nhi<turn|>\n<|turn>system\nB<turn|>\n" G4_TURN);
    G4_READS(G4_HI ",{\"role\":\"assistant\",\"content\":[{\"type\":\"refusal\",\"refusal\":\"No.\"}]}," G4_HI,
             G4_HI_TEXT "<|turn>model\nNo.<turn|>\n<|turn>user\nhi<turn|>\n" G4_TURN);
    G4_READS(G4_HI ",{\"role\":\"assistant\",\"content\":null,\"refusal\":\"No.\",\"annotations\":[],\"audio\":null,"
                   "\"function_call\":null,\"tool_calls\":null}," G4_HI,
             G4_HI_TEXT "<|turn>model\nNo.<turn|>\n<|turn>user\nhi<turn|>\n" G4_TURN);
    G4_READS("{\"role\":\"user\",\"content\":\"a \\ud83d b \\ud83d\\ude00\"}",
             "<bos><|turn>user\na \xef\xbf\xbd b \xf0\x9f\x98\x80<turn|>\n" G4_TURN);
    G4_READS("{\"role\":\"user\",\"content\":\"<|turn>\",\"name\":5,\"other\":{}}",
             "<bos><|turn>user\n<|turn><turn|>\n" G4_TURN);

#define G4_PART(part) "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"q\"}," part "]}"
    G4_READS(G4_PART("{\"type\":\"file\",\"file\":{}}"),
             "messages[0].content[1].type: content parts of type \"file\" are not understood; text, image_url, "
             "input_audio, video_url are");
    G4_READS(
        G4_PART("{\"type\":\"a type with a very long name "
                "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\"}"),
        "messages[0].content[1].type: content parts of type \"a type with a very long name "
        "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9...\" are not understood; text, image_url, input_audio, video_url "
        "are");
    G4_READS(G4_PART("{\"text\":\"x\"}"), "messages[0].content[1].type: expected the kind of part, found nothing");
    G4_READS(G4_PART("\"x\""), "messages[0].content[1]: expected an object with a type, found text");
    G4_READS(G4_PART("{\"type\":\"text\",\"text\":null}"), "messages[0].content[1].text: expected text, found null");
    G4_READS(G4_PART("{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"data\":\"aaaa\"}}"),
             "messages[0].content[1].source: is not understood; image_url, input_audio, video_url are");
    G4_READS(G4_PART("{\"type\":\"image_url\",\"image_url\":{\"file_id\":\"f\"}}"),
             "messages[0].content[1].image_url: expected an address or data, found none");
    G4_READS("{\"role\":\"user\",\"content\":5}",
             "messages[0].content: expected text or a list of parts, found a number");
    G4_READS("{\"role\":\"user\",\"content\":{}}",
             "messages[0].content: expected text or a list of parts, found an object");
    G4_READS("{\"role\":\"system\",\"content\":[{\"type\":\"image\"}]}",
             "messages[0].content[0].type: a message of this role holds text, not \"image\"");
    G4_READS("{\"role\":\"function\",\"content\":\"x\"}",
             "messages[0].role: expected system, developer, user, assistant or tool, found \"function\"");
    G4_READS("{\"content\":\"x\"}", "messages[0].role: expected text, found nothing");
    G4_READS("7", "messages[0]: expected an object, found a number");
    G4_READS("{\"role\":\"assistant\",\"content\":\"x\",\"reasoning_content\":[]}",
             "messages[0].reasoning_content: expected text, found a list");
    G4_READS("{\"role\":\"assistant\",\"function_call\":{\"name\":\"f\"}}",
             "messages[0].function_call: expected null: calls are in tool_calls, and answers are text");
    G4_READS("", "messages: expected at least one message, found none");
    G4_REQUEST("{}", "messages: expected a list, found nothing");
    G4_REQUEST("{\"messages\":{}}", "messages: expected a list, found an object");
    G4_REQUEST("\"x\"", "expected an object with messages, or a list of messages, found text");
    G4_REQUEST("[{]", "JSON, line 1 column 3: expected a name in double quotes");
}

#define G4_CALL(id, name, arguments)                                                                                   \
    "{\"id\":" id ",\"type\":\"function\",\"function\":{\"name\":" name ",\"arguments\":" arguments "}}"
#define G4_CALLS(calls) "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[" calls "]}"
#define G4_RESULT(id, content) "{\"role\":\"tool\",\"tool_call_id\":" id ",\"content\":" content "}"

static void g4_test_calls(void)
{
    static const struct {
        const char *arguments, *want;
    } arguments[] = { { "\"{\\\"a\\\": 1}\"", "a:1" },
                      { "{\"a\":1}", "a:1" },
                      { "\"null\"", "" },
                      { "null", "" },
                      { "\"\"", "" },
                      { "\" \\n\"", "" },
                      { "\"{}\"", "" },
                      { "\"{\\\"city\\\": \\\"Par\"", "{\"city\": \"Par" },
                      { "\"not json\"", "not json" },
                      { "\"[1]\"", "[1]" },
                      { "[1, {\"a\": \"b\"}]", "[1,{\"a\":\"b\"}]" },
                      { "true", "true" },
                      { "\"5\"", "5" },
                      { "\"{\\\"a\\\": \\\"\\\\ud800\\\"}\"", "a:<|\"|>\xef\xbf\xbd<|\"|>" } };
    char json[1024], want[1024];
    for (size_t i = 0; i < sizeof arguments / sizeof arguments[0]; i++) {
        snprintf(json, sizeof json, "[" G4_HI "," G4_CALLS("%s%s%s") "," G4_RESULT("\"x\"", "\"ok\"") "," G4_HI "]",
                 "{\"id\":\"x\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":",
                 arguments[i].arguments, "}}");
        snprintf(want, sizeof want,
                 G4_HI_TEXT
                 "<|turn>model\n<|tool_call>call:f{%s}<tool_call|><|tool_response>response:f{value:<|\"|>ok<|"
                 "\"|>}<tool_response|><turn|>\n<|turn>user\nhi<turn|>\n" G4_TURN,
                 arguments[i].want);
        g4_expect_request(json, want, __LINE__);
    }
    /* results by id, by name, by order; equal ids in the order of their calls; media in a result */
#define G4_TWO G4_CALL("\"1\"", "\"f\"", "\"{}\"") "," G4_CALL("\"2\"", "\"g\"", "\"{}\"")
#define G4_TWO_TEXT "<bos><|turn>model\n<|tool_call>call:f{}<tool_call|><|tool_call>call:g{}<tool_call|>"
#define G4_SAID(name, what) "<|tool_response>response:" name "{value:<|\"|>" what "<|\"|>}<tool_response|>"
    G4_READS(G4_CALLS(G4_TWO) "," G4_RESULT("\"2\"", "\"b\"") "," G4_RESULT("\"1\"", "\"a\""),
             G4_TWO_TEXT G4_SAID("g", "b") G4_SAID("f", "a"));
    G4_READS(
        G4_CALLS(G4_TWO) ",{\"role\":\"tool\",\"content\":\"a\"},{\"role\":\"tool\",\"content\":\"b\",\"name\":null}",
        G4_TWO_TEXT G4_SAID("f", "a") G4_SAID("g", "b"));
    G4_READS(G4_CALLS(G4_TWO) ",{\"role\":\"tool\",\"content\":\"a\",\"name\":\"g\"}", G4_TWO_TEXT G4_SAID("g", "a"));
    G4_READS(G4_CALLS(G4_CALL("1", "\"f\"", "\"{}\"") "," G4_CALL("2", "\"g\"", "\"{}\"")) "," G4_RESULT("2", "\"b\""),
             G4_TWO_TEXT G4_SAID("g", "b"));
    G4_READS(G4_CALLS(G4_CALL("\"\"", "\"f\"", "\"{}\"") "," G4_CALL("\"\"", "\"g\"", "\"{}\"")) "," G4_RESULT(
                 "\"\"", "\"a\"") "," G4_RESULT("\"\"", "\"b\""),
             G4_TWO_TEXT G4_SAID("f", "a") G4_SAID("g", "b"));
    G4_READS(
        G4_CALLS("{\"name\":\"f\",\"arguments\":\"{}\",\"id\":\"1\"},{\"id\":\"2\",\"type\":\"function\",\"name\":"
                 "\"g\",\"arguments\":\"{}\"}") "," G4_RESULT("\"2\"",
                                                              "[{\"type\":\"text\",\"text\":\"b\"},{\"type\":"
                                                              "\"image_url\",\"image_url\":{\"url\":\"data:,\"}}]"),
        G4_TWO_TEXT G4_SAID("g", "b") "<|image|>");
    G4_READS(
        G4_CALLS(G4_CALL("\"1\"", "null", "\"{\"")) "," G4_RESULT("\"1\"", "null"),
        "<bos><|turn>model\n<|tool_call>call:{{}<tool_call|><|tool_response>response:{value:null}<tool_response|>");
    G4_READS(G4_HI ",{\"role\":\"assistant\",\"content\":\"x\",\"tool_calls\":[]}," G4_HI,
             G4_HI_TEXT "<|turn>model\nx<turn|>\n<|turn>user\nhi<turn|>\n" G4_TURN);

    /* results without their calls */
    G4_READS(G4_HI "," G4_RESULT("\"x9\"", "\"a\""),
             "messages[1].tool_call_id: the result of call \"x9\" follows no message with calls");
    G4_READS(G4_RESULT("null", "\"a\""), "messages[0]: the result of call \"\" follows no message with calls");
    G4_READS(G4_CALLS(G4_TWO) "," G4_HI "," G4_RESULT("\"1\"", "\"a\""),
             "messages[2].tool_call_id: the result of call \"1\" follows no message with calls");
    G4_READS(G4_HI "," G4_CALLS(G4_TWO) "," G4_RESULT("\"1\"", "\"a\"") "," G4_RESULT("\"3\"", "\"a\""),
             "messages[3].tool_call_id: messages[1] makes no call \"3\"");
    G4_READS(G4_CALLS(G4_CALL("\"1\"", "\"f\"", "\"{}\"")) ",{\"role\":\"tool\"},{\"role\":\"tool\"}",
             "messages[2]: messages[0] makes no call \"\"");
    G4_READS(G4_RESULT("{}", "\"a\""), "messages[0].tool_call_id: expected text, found an object");
    /* calls of a wrong form */
    G4_READS(G4_CALLS(G4_CALL("[]", "\"f\"", "\"\"")), "messages[0].tool_calls[0].id: expected text, found a list");
    G4_READS(G4_CALLS(G4_CALL("null", "7", "\"\"")), "messages[0].tool_calls[0].name: expected text, found a number");
    G4_READS(G4_CALLS("{\"type\":\"custom\"}"),
             "messages[0].tool_calls[0].type: expected \"function\", found \"custom\"");
    G4_READS(G4_CALLS("{\"type\":\"function\"}"),
             "messages[0].tool_calls[0].function: expected an object, found nothing");
    G4_READS(G4_CALLS("5"), "messages[0].tool_calls[0]: expected an object, found a number");
    G4_READS("{\"role\":\"assistant\",\"tool_calls\":{}}", "messages[0].tool_calls: expected a list, found an object");
}

/* ---- Tools --------------------------------------------------------------------------------------- */

#define G4_PARAMETERS "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}}}"
#define G4_F                                                                                                           \
    "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":" G4_PARAMETERS "}}"
#define G4_G "{\"type\":\"function\",\"function\":{\"name\":\"g\"}}"
#define G4_F_TEXT                                                                                                      \
    "<bos><|turn>system\n<|tool>declaration:f{description:<|\"|>d<|\"|>,parameters:{properties:{a:{type:<|\"|>"        \
    "INTEGER<|\""                                                                                                      \
    "|>}},type:<|\"|>OBJECT<|\"|>}}<tool|><turn|>\n<|turn>user\nhi<turn|>\n" G4_TURN

static void g4_expect_info(const char *fields, int (*is_so)(const g4_request_info *i), int line)
{
    g4_error err = { 0 };
    g4_request *r;
    char json[1024];
    snprintf(json, sizeof json, "{\"messages\":[" G4_HI "]%s%s}", fields[0] != '\0' ? "," : "", fields);
    G4_EXPECT(g4_request_read(&r, json, strlen(json), NULL, NULL, &err) == G4_OK, "line %d: %s", line, err.message);
    if (r != NULL) G4_EXPECT(is_so(g4_request_get(r)), "line %d: %s", line, fields);
    g4_request_close(r);
}

#define G4_TOOLS "\"tools\":[" G4_F "," G4_G "]"
static int g4_is_all(const g4_request_info *i)
{
    return strcmp(i->tools, "[" G4_F "," G4_G "]") == 0 && strlen(i->tools) == i->tools_len &&
           strcmp(i->callable, i->tools) == 0 && i->tool_choice == G4_TOOLS_AUTO && !i->one_call;
}
static int g4_is_required(const g4_request_info *i) { return i->tool_choice == G4_TOOLS_REQUIRED && i->one_call; }
static int g4_is_named(const g4_request_info *i)
{
    return i->tool_choice == G4_TOOLS_NAMED && strcmp(i->tool_name, "g") == 0 && i->callable_len == i->tools_len;
}
static int g4_is_allowed(const g4_request_info *i)
{
    return i->tool_choice == G4_TOOLS_REQUIRED && strcmp(i->callable, "[" G4_G "]") == 0 &&
           i->tools_len > i->callable_len;
}
static int g4_has_no_tools(const g4_request_info *i)
{
    return i->tools == NULL && i->callable == NULL && i->tool_choice == G4_TOOLS_NONE;
}

/* Keywords of a tool's parameters that are not what they should be say nothing, and stop no conversation. */
static void g4_test_odd_parameters(void)
{
#define G4_ODD(parameters, text)                                                                                       \
    G4_FIELD_SAYS("\"tools\":[{\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{" parameters "}}}]", \
                  "<bos><|turn>system\n<|tool>declaration:f{description:<|\"|>d<|\"|>,parameters:{" text               \
                  "}<tool|><turn|>\n<|turn>user\nhi<turn|>\n" G4_TURN)
#define G4_STRING_TYPE "type:<|\"|>STRING<|\"|>"
    G4_ODD("\"properties\":[1]", "properties:{},");
    G4_ODD("\"properties\":\"x\",\"required\":[\"a\"]", "properties:{},required:[<|\"|>a<|\"|>],");
    G4_ODD("\"properties\":7,\"type\":\"string\"", "properties:{}," G4_STRING_TYPE "}");
    G4_ODD("\"properties\":{\"a\":{\"type\":\"object\",\"properties\":true,\"required\":true}}",
           "properties:{a:{properties:{},required:[],type:<|\"|>OBJECT<|\"|>}},");
    G4_ODD("\"properties\":{\"a\":{\"type\":\"string\"}},\"required\":true,\"type\":\"string\"",
           "properties:{a:{" G4_STRING_TYPE "}},required:[]," G4_STRING_TYPE "}");
    G4_ODD("\"properties\":{\"a\":{\"type\":\"array\",\"items\":{\"type\":5,\"properties\":[]}}}",
           "properties:{a:{items:{properties:{},type:[]},type:<|\"|>ARRAY<|\"|>}},");
}

static void g4_test_tools(void)
{
    g4_test_odd_parameters();
    G4_FIELD_SAYS("\"tools\":[" G4_F "]", G4_F_TEXT);
    G4_FIELD_SAYS("\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"description\":\"d\",\"parameters\":" G4_PARAMETERS
                  ",\"strict\":true}]",
                  G4_F_TEXT);
    G4_FIELD_SAYS("\"tools\":[{\"name\":\"f\",\"description\":\"d\",\"inputSchema\":" G4_PARAMETERS
                  ",\"title\":\"F\"}]",
                  G4_F_TEXT);
    G4_FIELD_SAYS("\"tools\":[{\"name\":\"f\",\"description\":\"d\",\"input_schema\":" G4_PARAMETERS "}]", G4_F_TEXT);
    G4_FIELD_SAYS("\"tools\":[]", G4_HI_TEXT G4_TURN);
    G4_FIELD_SAYS("\"tools\":null,\"tool_choice\":\"auto\"", G4_HI_TEXT G4_TURN);
    g4_expect_info(G4_TOOLS, g4_is_all, __LINE__);
    g4_expect_info(G4_TOOLS ",\"tool_choice\":\"required\",\"parallel_tool_calls\":false", g4_is_required, __LINE__);
    g4_expect_info(G4_TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}", g4_is_named,
                   __LINE__);
    g4_expect_info(G4_TOOLS ",\"tool_choice\":{\"type\":\"function\",\"name\":\"g\"}", g4_is_named, __LINE__);
    g4_expect_info(G4_TOOLS ",\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"required\","
                            "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]}}",
                   g4_is_allowed, __LINE__);
    g4_expect_info("\"tools\":[],\"tool_choice\":\"none\"", g4_has_no_tools, __LINE__);

    G4_FIELD_SAYS("\"tools\":{}", "tools: expected a list, found an object");
    G4_FIELD_SAYS("\"tools\":[5]", "tools[0]: expected an object, found a number");
    G4_FIELD_SAYS("\"tools\":[" G4_F ",{\"type\":\"custom\",\"custom\":{\"name\":\"x\"}}]",
                  "tools[1].type: expected \"function\", found \"custom\"");
    G4_FIELD_SAYS("\"tools\":[{\"type\":\"web_search\"}]",
                  "tools[0].type: expected \"function\", found \"web_search\"");
    G4_FIELD_SAYS("\"tools\":[{\"type\":\"function\",\"function\":{}}]",
                  "tools[0].function.name: expected the name of a function, found nothing");
    static const char *const unreadable[][2] = { { "a{b", "a{b" },   { "$(id)", "$(id)" },        { "a\\nb", "a\nb" },
                                                 { " a", " a" },     { "a\\u00a0", "a\xc2\xa0" }, { "[a", "[a" },
                                                 { "```a", "```a" }, { "a\\u0000", "a" } };
    for (size_t i = 0; i < sizeof unreadable / sizeof unreadable[0]; i++) {
        char request[200], want[200];
        snprintf(request, sizeof request, "{\"messages\":[" G4_HI "],\"tools\":[{\"function\":{\"name\":\"%s\"}}]}",
                 unreadable[i][0]);
        snprintf(want, sizeof want,
                 "tools[0].function.name: expected a name that a call can hold, without { ( and controls, found \"%s\"",
                 unreadable[i][1]);
        g4_expect_request(request, want, __LINE__);
    }
    G4_FIELD_SAYS("\"tools\":[{\"function\":{\"name\":\"f\",\"parameters\":[]}}]",
                  "tools[0].function.parameters: expected an object, found a list");
    G4_FIELD_SAYS(G4_TOOLS ",\"tool_choice\":\"any\"",
                  "tool_choice: expected none, auto, required or a function, found \"any\"");
    G4_FIELD_SAYS(G4_TOOLS ",\"tool_choice\":5", "tool_choice: expected a function with its name, found a number");
    G4_FIELD_SAYS(G4_TOOLS ",\"tool_choice\":{\"type\":\"function\",\"name\":\"h\"}",
                  "tool_choice: no tool is named \"h\"");
    G4_FIELD_SAYS("\"tool_choice\":\"required\"", "tool_choice: a call is required, and there are no tools");
    G4_FIELD_SAYS(G4_TOOLS ",\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"tools\":[]}}",
                  "tool_choice.allowed_tools.mode: expected \"auto\" or \"required\", found nothing");
    G4_FIELD_SAYS(G4_TOOLS
                  ",\"tool_choice\":{\"type\":\"allowed_tools\",\"allowed_tools\":{\"mode\":\"auto\",\"tools\":[]}}",
                  "tool_choice.allowed_tools.tools: expected a list of functions, found none in it");
    G4_FIELD_SAYS("\"parallel_tool_calls\":1", "parallel_tool_calls: expected true or false, found a number");
}

/* ---- Options ------------------------------------------------------------------------------------- */

static int g4_is_plain(const g4_request_info *i)
{
    return i->model == NULL && !i->stream && i->max_tokens == 0 && isnan(i->temperature) && isnan(i->top_p) &&
           isnan(i->min_p) && isnan(i->repeat_penalty) && isnan(i->presence_penalty) && isnan(i->frequency_penalty) &&
           i->top_k == -1 && !i->has_seed && i->n_stop == 0 && i->n_bias == 0 && !i->want_logprobs &&
           i->thinking == -1 && i->format == G4_FORMAT_TEXT && i->schema == NULL && !i->continue_final;
}
static int g4_is_full(const g4_request_info *i)
{
    return strcmp(i->model, "m") == 0 && i->stream && i->include_usage && i->max_tokens == 7 && i->temperature == 0 &&
           i->top_p == 0.5 && i->top_k == 40 && i->min_p == 0.25 && i->has_seed && i->seed == 42 && i->n_stop == 2 &&
           strcmp(i->stop[1], "b") == 0 && i->presence_penalty == 1 && i->frequency_penalty == -1 &&
           i->repeat_penalty == 1.5 && i->n_bias == 2 && i->bias[1].token == 7 && i->bias[1].bias == -100.0f &&
           i->want_logprobs && i->n_top == 5;
}
static int g4_is_odd(const g4_request_info *i)
{
    return i->max_tokens == 0 && i->top_k == 0 && i->has_seed && i->seed == UINT64_MAX && i->n_stop == 1 &&
           i->repeat_penalty == 1.25 && i->want_logprobs && i->n_top == 2;
}
static int g4_is_low(const g4_request_info *i) { return i->thinking == 1 && i->think_budget == 1024; }
static int g4_is_off(const g4_request_info *i) { return i->thinking == 0 && i->think_budget == 0; }
static int g4_is_on(const g4_request_info *i) { return i->thinking == 1 && i->think_budget == 0; }
static int g4_is_object(const g4_request_info *i)
{
    return i->format == G4_FORMAT_JSON && strcmp(i->schema, "{\"type\":\"object\"}") == 0;
}
static int g4_is_schema(const g4_request_info *i)
{
    return i->format == G4_FORMAT_SCHEMA && strcmp(i->schema, "{\"const\":\"\xc3\xa9\"}") == 0 &&
           i->schema_len == strlen(i->schema);
}
static int g4_is_strict(const g4_request_info *i)
{
    return g4_is_schema(i) && i->is_strict && strcmp(i->schema_name, "s") == 0;
}

static void g4_test_options(void)
{
    g4_expect_info("", g4_is_plain, __LINE__);
    g4_expect_info(
        "\"model\":null,\"stream\":null,\"stream_options\":null,\"max_tokens\":null,\"max_completion_tokens\":null,"
        "\"temperature\":null,\"top_p\":null,\"top_k\":null,\"min_p\":null,\"seed\":null,\"stop\":null,"
        "\"presence_penalty\":null,\"logit_bias\":null,\"logprobs\":null,\"top_logprobs\":null,\"tools\":null,"
        "\"tool_choice\":null,\"response_format\":null,\"reasoning_effort\":null,\"chat_template_kwargs\":null,"
        "\"enable_thinking\":null,\"n\":null,\"user\":5,\"store\":\"x\",\"metadata\":[],\"unknown\":{\"a\":1}",
        g4_is_plain, __LINE__);
    g4_expect_info(
        "\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"max_tokens\":9,"
        "\"max_completion_tokens\":7,\"temperature\":0,\"top_p\":0.5,\"top_k\":40,\"min_p\":0.25,\"seed\":42,"
        "\"stop\":[\"a\",\"b\"],\"presence_penalty\":1,\"frequency_penalty\":-1,\"repeat_penalty\":1.5,"
        "\"logit_bias\":{\"5\":1,\"7\":-100},\"logprobs\":true,\"top_logprobs\":5,\"n\":1",
        g4_is_full, __LINE__);
    g4_expect_info("\"max_tokens\":-1,\"top_k\":-1,\"seed\":-1,\"stop\":[\"\",\"x\"],\"repetition_penalty\":1.25,"
                   "\"top_logprobs\":2",
                   g4_is_odd, __LINE__);
    g4_expect_info("\"reasoning_effort\":\"low\"", g4_is_low, __LINE__);
    g4_expect_info("\"reasoning_effort\":\"none\"", g4_is_off, __LINE__);
    g4_expect_info("\"reasoning_effort\":\"max\"", g4_is_on, __LINE__);
    g4_expect_info("\"enable_thinking\":true", g4_is_on, __LINE__);
    g4_expect_info("\"chat_template_kwargs\":{\"enable_thinking\":true,\"x\":1}", g4_is_on, __LINE__);
    g4_expect_info("\"chat_template_kwargs\":{\"enable_thinking\":true},\"enable_thinking\":false", g4_is_off,
                   __LINE__);
    g4_expect_info("\"response_format\":{\"type\":\"text\"}", g4_is_plain, __LINE__);
    g4_expect_info("\"response_format\":{\"type\":\"json_object\"}", g4_is_object, __LINE__);
    g4_expect_info("\"response_format\":{\"type\":\"json_object\",\"schema\":{\"const\":\"\\u00e9\"}}", g4_is_schema,
                   __LINE__);
    g4_expect_info(
        "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"s\",\"strict\":true,\"schema\":"
        "{\"const\":\"\xc3\xa9\"}}}",
        g4_is_strict, __LINE__);

    G4_FIELD_SAYS("\"temperature\":\"hot\"", "temperature: expected a number, found text");
    G4_FIELD_SAYS("\"temperature\":-1", "temperature: expected a number from 0 to 1e+06, found -1");
    G4_FIELD_SAYS("\"top_p\":1.5", "top_p: expected a number from 0 to 1, found 1.5");
    G4_FIELD_SAYS("\"temperature\":1e999", "temperature: expected a number from 0 to 1e+06, found 1e999");
    G4_FIELD_SAYS("\"max_tokens\":1.5", "max_tokens: expected a whole number from -1 to 2147483647, found 1.5");
    G4_FIELD_SAYS("\"max_tokens\":0", "max_tokens: expected at least 1 token, or -1 for no limit, found 0");
    G4_FIELD_SAYS("\"n\":2", "n: expected 1, as a request has one answer here, found 2");
    G4_FIELD_SAYS("\"seed\":0.5", "seed: expected a whole number, found a fraction");
    G4_FIELD_SAYS("\"stream\":\"yes\"", "stream: expected true or false, found text");
    G4_FIELD_SAYS("\"stream_options\":{\"include_usage\":1}",
                  "stream_options.include_usage: expected true or false, found a number");
    G4_FIELD_SAYS("\"stop\":5", "stop: expected text or a list of texts, found a number");
    G4_FIELD_SAYS("\"stop\":[5]", "stop: expected a list of texts, found a number in it");
    G4_FIELD_SAYS("\"stop\":\"a\\u0000b\"", "stop: a text must not hold a NUL");
    G4_FIELD_SAYS("\"logit_bias\":[]", "logit_bias: expected an object, found a list");
    G4_FIELD_SAYS("\"logit_bias\":{\"x\":1}", "logit_bias: expected token ids as names, found \"x\"");
    G4_FIELD_SAYS("\"logit_bias\":{\"5\":null}",
                  "logit_bias: expected numbers from -1e6 to 1e6, found null for token 5");
    G4_FIELD_SAYS("\"top_logprobs\":65", "top_logprobs: expected a whole number from 0 to 64, found 65");
    G4_FIELD_SAYS("\"model\":5", "model: expected text, found a number");
    G4_FIELD_SAYS("\"reasoning_effort\":\"lots\"",
                  "reasoning_effort: expected none, minimal, low, medium, high, xhigh or max, found \"lots\"");
    G4_FIELD_SAYS("\"chat_template_kwargs\":{\"enable_thinking\":\"on\"}",
                  "chat_template_kwargs.enable_thinking: expected true or false, found text");
    G4_FIELD_SAYS("\"response_format\":{\"type\":\"xml\"}",
                  "response_format.type: expected text, json_object or json_schema, found \"xml\"");
    G4_FIELD_SAYS("\"response_format\":\"json\"", "response_format: expected an object, found text");
    G4_FIELD_SAYS("\"response_format\":{\"type\":\"json_schema\"}",
                  "response_format.json_schema: expected an object, found nothing");
    G4_FIELD_SAYS("\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":5}}",
                  "response_format.json_schema.schema: expected an object, found a number");

    /* the prompt */
    G4_FIELD_SAYS("\"add_generation_prompt\":false", G4_HI_TEXT);
    G4_FIELD_SAYS("\"enable_thinking\":true",
                  "<bos><|turn>system\n<|think|>\n<turn|>\n<|turn>user\nhi<turn|>\n<|turn>model\n");
    G4_FIELD_SAYS("\"continue_final_message\":true",
                  "continue_final_message: the last message must be text of the assistant");
#define G4_OPEN_END                                                                                                    \
    "{\"messages\":[" G4_HI ",{\"role\":\"assistant\",\"content\":\"The \"}],\"continue_final_message\":true"
    G4_REQUEST(G4_OPEN_END ",\"add_generation_prompt\":false}", G4_HI_TEXT "<|turn>model\nThe");
    G4_REQUEST(G4_OPEN_END "}", G4_HI_TEXT "<|turn>model\nThe");
    G4_REQUEST(G4_OPEN_END ",\"add_generation_prompt\":true}",
               "continue_final_message: add_generation_prompt must be false beside it");
}

static void g4_test_sampling(void)
{
    const char *json = "{\"messages\":[" G4_HI "],\"temperature\":0,\"top_k\":3,\"seed\":9,\"logit_bias\":{\"4\":2.5}}";
    g4_request *r;
    g4_sampling s = { .temperature = 1, .top_p = 0.5f, .top_k = 64 };
    G4_EXPECT(g4_request_read(&r, json, strlen(json), NULL, NULL, NULL) == G4_OK, "%s", json);
    g4_request_sampling(r, &s);
    G4_EXPECT(s.temperature == 0 && s.top_p == 0.5f && s.top_k == 3 && s.seed == 9 && s.n_bias == 1 &&
                  s.bias[0].token == 4 && s.bias[0].bias == 2.5f,
              "temperature %g, top_p %g, top_k %d", (double)s.temperature, (double)s.top_p, s.top_k);
    g4_request_sampling(NULL, &s);
    g4_request_sampling(r, NULL);
    g4_request_close(r);
    g4_request_close(NULL);
    G4_EXPECT(g4_request_get(NULL) == NULL, "a request of nothing");
    g4_error err;
    g4_chat *c;
    G4_EXPECT(g4_request_read(NULL, "[]", 2, NULL, NULL, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    G4_EXPECT(g4_request_read(&r, NULL, 2, NULL, NULL, &err) == G4_ERR_ARGUMENT && r == NULL, "%s", err.message);
    G4_EXPECT(g4_request_chat(&c, NULL, NULL, NULL, NULL, &err) == G4_ERR_ARGUMENT && c == NULL, "%s", err.message);
    G4_EXPECT(g4_request_chat(NULL, NULL, NULL, NULL, NULL, &err) == G4_ERR_ARGUMENT, "%s", err.message);
}

/* ---- Media --------------------------------------------------------------------------------------- */

static const char g4_ppm[] = "P6\n2 1\n255\nabcdef";

static void g4_write_file(const char *path)
{
    FILE *f = fopen(path, "wb");
    G4_EXPECT(f != NULL && fwrite(g4_ppm, 1, sizeof g4_ppm - 1, f) == sizeof g4_ppm - 1, "%s", path);
    if (f != NULL) fclose(f);
}

/* A picture under that address loads, or is refused in these words (a part of the message). */
static void g4_expect_source(const char *source, const g4_chat_load_options *opt, const char *want)
{
    g4_error err = { 0 };
    g4_chat *c;
    g4_chat_medium m;
    char json[2048];
    const g4_chat_options named = { .template_name = "31b-2026-07", .openai = 1 };
    snprintf(json, sizeof json,
             "[" G4_HI ",{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"%s\"}}]}]",
             source);
    G4_EXPECT(g4_chat_parse(&c, NULL, json, strlen(json), &named, &err) == G4_OK, "%s", err.message);
    const g4_status st = g4_chat_load_media(c, opt, &err);
    if (want == NULL)
        G4_EXPECT(st == G4_OK && g4_chat_media(c, 0, &m, &err) == G4_OK && m.is_set && m.image != NULL &&
                      m.image->width == 2 && memcmp(m.image->pixels, "abcdef", 6) == 0,
                  "%s: %s", source, err.message);
    else
        G4_EXPECT(st != G4_OK && strstr(err.message, want) != NULL && strstr(err.message, "messages[1]") != NULL &&
                      (g4_chat_media(c, 0, &m, NULL) != G4_OK || !m.is_set),
                  "%s: %s", source, err.message);
    g4_chat_close(c);
}

static g4_status g4_choose_path(void *user, const g4_chat_medium *m, char *path, size_t size, g4_error *err)
{
    if (strcmp(m->source, "the picture") != 0) return g4_fail(err, G4_ERR_ARGUMENT, "only the picture");
    return snprintf(path, size, "%s", (const char *)user) < (int)size ? G4_OK : G4_ERR_ARGUMENT;
}

static void g4_test_media(void)
{
    char top[] = "/tmp/g4_openai_XXXXXX", path[256], other[256], json[512];
    G4_EXPECT(mkdtemp(top) != NULL, "no folder");
    static const char *const folders[] = { "in", "in/deep", "inside", "out" };
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", top, folders[i]);
        mkdir(path, 0700);
    }
    static const char *const files[] = { "in/a b.ppm", "in/deep/p.ppm", "inside/p.ppm", "out/p.ppm" };
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", top, files[i]);
        g4_write_file(path);
    }
    static const char *const links[][2] = { { "in/link.ppm", "../out/p.ppm" },
                                            { "in/folder", "../out" },
                                            { "in/good.ppm", "deep/p.ppm" },
                                            { "in/loop", "loop" },
                                            { "in/null.ppm", "/dev/null" } };
    for (int i = 0; i < 5; i++) {
        snprintf(path, sizeof path, "%s/%s", top, links[i][0]);
        G4_EXPECT(symlink(links[i][1], path) == 0, "%s", path);
    }
    snprintf(path, sizeof path, "%s/in/pipe", top);
    mkfifo(path, 0600);
    snprintf(path, sizeof path, "%s/in", top);
    const g4_chat_load_options below = { .root = path };
    /* below the folder */
    static const char *const good[] = { "a b.ppm", "deep/p.ppm", "./deep/../a b.ppm", "good.ppm", "deep//p.ppm" };
    for (int i = 0; i < 5; i++) g4_expect_source(good[i], &below, NULL);
    static const char *const absolute[] = { "%s/in/a b.ppm", "file://%s/in/a%%20b.ppm", "file:%s/in/good.ppm",
                                            "FILE://localhost%s/in/deep/p.ppm", "%s/out/../in/a b.ppm" };
    for (int i = 0; i < 5; i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(other, sizeof other, absolute[i], top);
#pragma GCC diagnostic pop
        g4_expect_source(other, &below, NULL);
    }
    /* anywhere else */
    static const char *const bad[] = { "../out/p.ppm",
                                       "../inside/p.ppm",
                                       "link.ppm",
                                       "folder/p.ppm",
                                       "deep",
                                       "loop",
                                       "pipe",
                                       "null.ppm",
                                       ".",
                                       "/etc/passwd",
                                       "missing.ppm",
                                       "deep/../../out/p.ppm",
                                       "file:///etc/passwd",
                                       "file://localhost/etc/passwd",
                                       "/proc/self/environ",
                                       "file:///%2e%2e/etc/passwd",
                                       "/dev/stdin" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        g4_expect_source(bad[i], &below, "there is no such file below");
    static const char *const outside[] = { "%s/out/p.ppm",
                                           "%s/inside/p.ppm",
                                           "file://%s/in/../out/p.ppm",
                                           "file://%s/in/%%2e%%2e/out/p.ppm",
                                           "%s/in/link.ppm",
                                           "%s" };
    for (int i = 0; i < 6; i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(other, sizeof other, outside[i], top);
#pragma GCC diagnostic pop
        g4_expect_source(other, &below, "there is no such file below");
    }
    g4_expect_source("", &below, "an address or path is empty");
    g4_expect_source("http://localhost/x.ppm", &below, "addresses are not fetched");
    g4_expect_source("concat://a|b", &below, "addresses are not fetched");
    g4_expect_source("file://server/share/x.ppm", &below, "files of other hosts");
    g4_expect_source("file:///a%00b", &below, "%");
    g4_expect_source("file:///a%zz", &below, "%");
    /* no folder: data only */
    g4_expect_source("a b.ppm", NULL, "is not opened: media must be data: URLs here");
    g4_expect_source(path, &(g4_chat_load_options) { .image_tokens = 70 }, "is not opened");
    g4_expect_source("data:image/x-portable-pixmap;base64,UDYKMiAxCjI1NQphYmNkZWY=", NULL, NULL);
    g4_expect_source("DATA:;charset=x;BASE64,UDYKMiAxCjI1NQphYmNkZWY", NULL, NULL);
    g4_expect_source("data:;base64,UDYKMiAxCjI1NQphYmNkZWY%3D", NULL, NULL);
    g4_expect_source("data:,P6%0A2%201%0a255%0Aabcdef", NULL, NULL);
    g4_expect_source("data:image/png;base64,UDYKMiA*", NULL, "base64");
    g4_expect_source("data:,P6%0", NULL, "%");
    /* lists of other files */
    g4_expect_source("data:,ffconcat%20version%201.0%0Afile%20x.png%0A", NULL, "it is text");
    g4_expect_source("data:video/mp4,%23EXTM3U%0A%23EXTINF:1,%0Afile:///tmp/x.ts%0A", NULL, "it is text");
    g4_expect_source("data:,%3C?xml%20version='1.0'?%3E%3CMPD%3E", NULL, "it is text");
    g4_expect_source("data:,hello", NULL, "it is text");
    g4_expect_source("data:image/png;base64", NULL, "comma");
    /* a function decides */
    snprintf(other, sizeof other, "%s/out/p.ppm", top);
    const g4_chat_load_options chosen = { .root = path, .path = g4_choose_path, .user = other };
    g4_expect_source("the picture", &chosen, NULL);
    g4_expect_source("a b.ppm", &chosen, "only the picture");

    /* all or none: what was loaded before a failure is forgotten, what the caller set stays */
    g4_error err = { 0 };
    g4_chat *c;
    g4_chat_medium m;
    const g4_image image = { .width = 1 };
    const g4_chat_options named = { .template_name = "e2b-2026-07", .openai = 1 };
    snprintf(
        json, sizeof json,
        "[{\"role\":\"user\",\"content\":[{\"type\":\"image\"},{\"type\":\"image\",\"path\":\"a b.ppm\"},{\"type\":"
        "\"image\",\"path\":\"no\"}]}]");
    G4_EXPECT(g4_chat_parse(&c, NULL, json, strlen(json), &named, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(g4_chat_load_media(c, &below, &err) == G4_ERR_ARGUMENT && strstr(err.message, "names neither") != NULL,
              "%s", err.message);
    G4_EXPECT(g4_chat_set_image(c, 0, &image, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(g4_chat_load_media(c, &below, &err) == G4_ERR_IO, "%s", err.message);
    G4_EXPECT(g4_chat_media(c, 1, &m, &err) == G4_OK && !m.is_set, "a medium of a call that failed");
    G4_EXPECT(g4_chat_media(c, 0, &m, &err) == G4_OK && m.image == &image, "the caller's");
    G4_EXPECT(g4_chat_set_image(c, 2, &image, &err) == G4_OK && g4_chat_load_media(c, &below, &err) == G4_OK, "%s",
              err.message);
    G4_EXPECT(g4_chat_set_image(c, 1, &image, &err) == G4_OK, "%s", err.message); /* instead of the loaded one */
    G4_EXPECT(g4_chat_load_media(c, &below, &err) == G4_OK && g4_chat_load_media(NULL, NULL, &err) == G4_ERR_ARGUMENT,
              "%s", err.message);
    g4_chat_close(c);
    /* a path with a NUL in it is not what stands before it */
    const char *nul = "[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"path\":\"a b.ppm\\u0000.png\"}]}]";
    G4_EXPECT(g4_chat_parse(&c, NULL, nul, strlen(nul), &named, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(g4_chat_load_media(c, &below, &err) == G4_ERR_FORMAT && strstr(err.message, "NUL") != NULL, "%s",
              err.message);
    g4_chat_close(c);
    G4_EXPECT(g4_media_below("/no/such/folder", "x", other, sizeof other, &err) == G4_ERR_IO, "%s", err.message);
    G4_EXPECT(g4_media_below(path, "deep/p.ppm", other, 5, &err) == G4_ERR_ARGUMENT && other[0] == '\0', "%s",
              err.message);
    G4_EXPECT(g4_media_below(NULL, "x", other, 5, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    G4_EXPECT(g4_media_below("/", path + 1, other, sizeof other, &err) == G4_ERR_IO, "%s", err.message);
    snprintf(json, sizeof json, "%s/out/p.ppm", top);
    G4_EXPECT(g4_media_below("/", json, other, sizeof other, &err) == G4_OK, "%s", err.message);

    snprintf(json, sizeof json, "rm -rf %s", top);
    G4_EXPECT(system(json) == 0, "%s", json);
}

/* ---- Answers ------------------------------------------------------------------------------------- */

static int g4_append(void *user, const void *data, size_t size)
{
    g4_buf_add(user, data, size);
    return ((g4_buf *)user)->failed;
}

static void g4_expect_answer(const g4_answer *c, const char *const *pieces, int line)
{
    g4_error err = { 0 };
    g4_buf b = { 0 };
    g4_json *v = NULL;
    G4_EXPECT(g4_answer_write(c, g4_append, &b, NULL, &err) == G4_OK, "line %d: %s", line, err.message);
    for (; *pieces != NULL; pieces++)
        G4_EXPECT(b.data != NULL && strstr(b.data, *pieces) != NULL, "line %d: no %s in %s", line, *pieces, b.data);
    G4_EXPECT(g4_json_parse(&v, NULL, b.data, b.len, &err) == G4_OK, "line %d: %s in %s", line, err.message, b.data);
    G4_EXPECT(b.len > 0 && b.data[b.len - 1] == '\n', "line %d: no newline", line);
    g4_json_free(NULL, v);
    g4_buf_free(&b);
}
#define G4_ANSWERS(c, ...) g4_expect_answer(c, (const char *const[]) { __VA_ARGS__, NULL }, __LINE__)

static void g4_test_answers(void)
{
    const g4_part parts[] = { { .kind = G4_PART_THOUGHT, .text = "Hm\n" },
                              { .kind = G4_PART_TEXT, .text = "So \"it\"\x01 is\xff" },
                              { .kind = G4_PART_TOOL_CALL, .name = "f", .text = "{\"a\":1}" },
                              { .kind = G4_PART_TOOL_CALL, .name = "g", .id = "mine" },
                              { .kind = G4_PART_TEXT, .text = " and" },
                              { .kind = G4_PART_TOOL_CALL, .name = "cut", .incomplete = 1 } };
    g4_answer c = { .id = 0xabc,
                    .created = 1700000000,
                    .parts = parts,
                    .n_parts = 6,
                    .result = { .stop = G4_STOP_END, .n_tokens = 9, .seconds = 0.5 },
                    .prompt_tokens = 20,
                    .cached_tokens = 8,
                    .thought_tokens = 3,
                    .prompt_seconds = 0.25 };
    G4_ANSWERS(
        &c,
        "{\"id\":\"chatcmpl-0000000000000abc\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":"
        "\"gemma4\",\"system_fingerprint\":\"gemma4.c-" G4_VERSION "\",\"choices\":[{\"index\":0,\"message\":",
        "{\"role\":\"assistant\",\"content\":\"So \\\"it\\\"\\u0001 is\xef\xbf\xbd "
        "and\",\"reasoning_content\":\"Hm\\n\","
        "\"tool_calls\":[{\"id\":\"call_0000000000000abc_0\",\"type\":\"function\",\"function\":{\"name\":\"f\","
        "\"arguments\":\"{\\\"a\\\":1}\"}},{\"id\":\"mine\",\"type\":\"function\",\"function\":{\"name\":\"g\","
        "\"arguments\":"
        "\"{}\"}}],\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"tool_calls\"}],",
        "\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":9,\"total_tokens\":29,\"prompt_tokens_details\":{"
        "\"cached_"
        "tokens\":8},\"completion_tokens_details\":{\"reasoning_tokens\":3}}",
        "\"timings\":{\"cache_n\":8,\"prompt_n\":12,\"prompt_ms\":250.000,\"prompt_per_token_ms\":20.833,\"prompt_per_"
        "second\":48.000,\"predicted_n\":9,\"predicted_ms\":500.000,");
    c.parts = parts + 2; /* only calls */
    c.n_parts = 2;
    c.model = "my \"model\"";
    c.fingerprint = "fp";
    G4_ANSWERS(&c, "\"model\":\"my \\\"model\\\"\",\"system_fingerprint\":\"fp\"",
               "\"content\":null,\"tool_calls\":[{");
    c.parts = parts + 5; /* a call that was cut off is none */
    c.n_parts = 1;
    G4_ANSWERS(&c, "\"message\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},",
               "\"finish_reason\":\"length\"}]");
    c.n_parts = 0;
    G4_ANSWERS(&c, "\"message\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},",
               "\"finish_reason\":\"stop\"}]");
    const double seconds = c.result.seconds;
    c.result.seconds = (double)NAN;
    G4_ANSWERS(&c, "\"predicted_ms\":0.000,\"predicted_per_token_ms\":0.000,\"predicted_per_second\":0.000}");
    c.result.seconds = seconds;
    static const struct {
        g4_stop stop;
        const char *want;
    } ends[] = { { G4_STOP_MAX_TOKENS, "\"finish_reason\":\"length\"}]" },
                 { G4_STOP_CONTEXT, "\"finish_reason\":\"length\",\"stop_reason\":\"context\"}]" },
                 { G4_STOP_CANCELED, "\"finish_reason\":\"length\",\"stop_reason\":\"canceled\"}]" },
                 { G4_STOP_STRING, "\"finish_reason\":\"stop\",\"stop_reason\":\"stop_string\"}]" },
                 { G4_STOP_REPEAT, "\"finish_reason\":\"stop\",\"stop_reason\":\"repetition\"}]" },
                 { G4_STOP_CONSTRAINT, "\"finish_reason\":\"stop\",\"stop_reason\":\"constraint\"}]" } };
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        c.result.stop = ends[i].stop;
        G4_ANSWERS(&c, ends[i].want);
    }
    /* tokens */
    g4_engine *e = NULL;
    g4_error err = { 0 };
    G4_EXPECT(g4_engine_open(&e, &(g4_engine_options) { .model_path = "tests/data/text_e2b.g4", .n_threads = 1 },
                             &err) == G4_OK,
              "%s", err.message);
    const g4_candidate top[] = { { 238 + 'A', -0.5f }, { 238 + 0xff, -INFINITY } };
    const g4_token_logprob tokens[] = { { .token = 238 + 'A', .logprob = -0.5f, .top = top, .n_top = 2 } };
    c.engine = e;
    c.want_logprobs = 1;
    G4_ANSWERS(&c, "\"logprobs\":{\"content\":[],\"refusal\":null}");
    c.logprobs = tokens;
    c.n_logprobs = 1;
    char bytes[256], want[512];
    const size_t n = g4_token_bytes(e, 238 + 'A', 0, bytes);
    g4_buf quoted = { 0 };
    g4_json_quote(&quoted, bytes, n);
    snprintf(want, sizeof want, "\"content\":[{\"token\":%s,\"logprob\":-0.500000000,\"bytes\":[%d", quoted.data,
             (unsigned char)bytes[0]);
    G4_ANSWERS(&c, want, "\"logprob\":-9999.000000000,", "\"top_logprobs\":[{");
    g4_buf_free(&quoted);
    c.engine = NULL;
    G4_EXPECT(g4_answer_write(&c, g4_append, &quoted, NULL, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    c.n_logprobs = 0;
    c.n_parts = -1;
    G4_EXPECT(g4_answer_write(&c, g4_append, &quoted, NULL, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    c.n_parts = 0;
    G4_EXPECT(g4_answer_write(&c, NULL, &quoted, NULL, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    G4_EXPECT(g4_answer_write(NULL, g4_append, &quoted, NULL, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    quoted.failed = 1; /* as if it could not be written */
    G4_EXPECT(g4_answer_write(&c, g4_append, &quoted, NULL, &err) == G4_ERR_IO, "%s", err.message);
    g4_buf_free(&quoted);
    g4_engine_close(e);
}

/* ---- Long documents, deep ones, little stack ----------------------------------------------------- */

typedef struct { /* a document, and how reading it ends */
    const char *json;
    size_t len;
    int openai;
    g4_status st;
    g4_error err;
    double seconds;
} g4_media_reading;

/* A request ends where its reader wants it to, whatever it is that is long in it. */
static void g4_test_request_until(void)
{
    static const char *const texts[] = { "{\"role\":\"user\",\"content\":\"hi\"}", "[1,2,\"3\"]", "\"\"" };
    g4_cancel flag = { 0 };
    g4_cancel_set(&flag);
    const g4_limits asked = { .cancel = &flag }, late = { .seconds = -1 };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        g4_buf json = { 0 };
        g4_buf_str(&json, "{\"messages\":[");
        for (int k = 0; k < 200; k++) g4_buf_fmt(&json, "%s%s", k > 0 ? "," : "", texts[i]);
        g4_buf_str(&json, "]}");
        for (int d = G4_DIALECT_OPENAI; d <= G4_DIALECT_COMPLETIONS; d++) {
            for (int k = 0; k < 2; k++) {
                g4_request *r = (g4_request *)&json;
                g4_error err;
                const g4_status st = g4_request_read_until(&r, (g4_dialect)d, json.data, json.len,
                                                           k == 0 ? &asked : &late, NULL, NULL, &err);
                G4_EXPECT(st == G4_ERR_CANCELED && r == NULL, "%zu, dialect %d: %s", i, d, g4_status_name(st));
            }
        }
        g4_buf_free(&json);
    }
    g4_request *r = NULL;
    const g4_limits none = { 0 };
    const char *json = "[{\"role\":\"user\",\"content\":\"hi\"}]";
    G4_EXPECT(g4_request_read_until(&r, G4_DIALECT_OPENAI, json, strlen(json), &none, NULL, NULL, NULL) == G4_OK,
              "without an end");
    g4_request_close(r);
}

static void *g4_read_main(void *user)
{
    g4_media_reading *w = user;
    g4_request *r = NULL;
    g4_chat *c = NULL;
    const g4_chat_options opt = { .template_name = "31b-2026-07" };
    const double start = g4_seconds();
    if (w->openai) {
        w->st = g4_request_read(&r, w->json, w->len, NULL, NULL, &w->err);
        if (w->st == G4_OK) w->st = g4_request_chat(&c, NULL, r, &opt, NULL, &w->err);
    } else {
        w->st = g4_chat_parse(&c, NULL, w->json, w->len, &opt, &w->err);
    }
    w->seconds = g4_seconds() - start;
    g4_chat_close(c);
    g4_request_close(r);
    return NULL;
}

/* On a thread with little stack. */
static void g4_expect_reading(const char *name, const g4_buf *json, int openai, g4_status want)
{
    g4_media_reading w = { .json = json->data, .len = json->len, .openai = openai };
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
#ifdef __SANITIZE_ADDRESS__
    pthread_attr_setstacksize(&attr, 8 << 20); /* frames are many times as large */
#else
    pthread_attr_setstacksize(&attr, 256 << 10);
#endif
    if (pthread_create(&thread, &attr, g4_read_main, &w) == 0) pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
    G4_EXPECT(w.st == want, "%s, openai %d: %s %s", name, openai, g4_status_name(w.st), w.err.message);
#ifdef __SANITIZE_ADDRESS__
    const double limit = 20;
#else
    const double limit = 3; /* it takes a tenth of a second; other work may be going on */
#endif
    G4_EXPECT(w.seconds < limit, "%s: %.2f s", name, w.seconds);
    printf("  %-28s %8zu bytes  %.3f s\n", name, json->len, w.seconds);
}

static void g4_repeat(g4_buf *b, const char *s, int n)
{
    for (int i = 0; i < n; i++) g4_buf_str(b, s);
}

static void g4_test_long(void)
{
    enum { N = 64000, DEEP = 500 };
    g4_buf b = { 0 };
    printf("long documents:\n");
    for (int openai = 0; openai < 2; openai++) {
        g4_buf_str(&b, "{\"messages\":[" G4_HI);
        g4_repeat(&b, ",{\"role\":\"assistant\",\"content\":\"Hello there.\"}," G4_HI, N / 2);
        g4_buf_str(&b, "]}");
        g4_expect_reading("64,000 messages", &b, openai, G4_OK);
        b.len = 0;

        g4_buf_str(&b, "[{\"role\":\"assistant\",\"tool_calls\":[");
        for (int i = 0; i < N / 2; i++)
            g4_buf_fmt(&b, "%s{\"id\":\"c%d\",\"function\":{\"name\":\"f\",\"arguments\":{}}}", i > 0 ? "," : "", i);
        g4_buf_str(&b, "]}");
        for (int i = N / 2; i-- > 0;)
            g4_buf_fmt(&b, ",{\"role\":\"tool\",\"tool_call_id\":\"c%d\",\"content\":\"ok\"}", i);
        g4_buf_str(&b, "]");
        g4_expect_reading("32,000 calls and results", &b, openai, G4_OK);
        b.len = 0;

        g4_buf_str(&b, "[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{}}}");
        g4_repeat(&b, ",{\"function\":{\"name\":\"f\",\"arguments\":{}}}", N / 2);
        g4_buf_str(&b, "]}");
        g4_repeat(&b, ",{\"role\":\"tool\",\"content\":\"ok\"}", N / 2);
        g4_buf_str(&b, "]");
        g4_expect_reading("calls without ids", &b, openai, G4_OK);
        b.len = 0;

        g4_buf_str(&b, "{\"messages\":[" G4_HI "],\"tools\":[");
        for (int k = 0; k < 2; k++) {
            for (int i = 0; i < N / 4; i++)
                g4_buf_fmt(&b, "%s{\"type\":\"function\",\"name\":\"f%d\"}", i > 0 ? "," : "",
                           k == 0 ? i : N / 4 - 1 - i);
            g4_buf_str(&b,
                       k == 0 ? "],\"tool_choice\":{\"type\":\"allowed_tools\",\"mode\":\"auto\",\"tools\":[" : "]}}");
        }
        if (openai) g4_expect_reading("16,000 tools that may be called", &b, openai, G4_OK);
        b.len = 0;

        g4_buf_str(&b, "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}");
        g4_repeat(&b, ",{\"type\":\"text\",\"text\":\"x\"}", N);
        g4_buf_str(&b, "]}]");
        g4_expect_reading("64,000 parts", &b, openai, G4_OK);
        b.len = 0;

        g4_buf_str(&b, "[{\"role\":\"assistant\",\"content\":\"");
        g4_repeat(&b, "<|channel>", N);
        g4_repeat(&b, "<channel|>", N);
        g4_buf_str(&b, "\"}]");
        g4_expect_reading("64,000 open thoughts", &b, openai, G4_OK);
        b.len = 0;

        /* 1 MB of lists, as deep as lists may be, in arguments, in a schema, and deeper than they may be */
        g4_buf_str(&b,
                   "[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":[0");
        for (int i = 0; i < 1000000 / (2 * DEEP); i++) {
            g4_buf_str(&b, ",");
            g4_repeat(&b, "[", DEEP);
            g4_repeat(&b, "]", DEEP);
        }
        g4_buf_str(&b, "]}}}]}]");
        g4_expect_reading("1 MB of nested lists", &b, openai, G4_OK);
        b.len = 0;

        g4_repeat(&b, "[", 1000000);
        g4_expect_reading("1 MB of brackets", &b, openai, G4_ERR_FORMAT);
        b.len = 0;

        g4_buf_str(&b, "{\"messages\":[" G4_HI
                       "],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":");
        g4_repeat(&b, "{\"type\":\"object\",\"properties\":{\"a\":", DEEP / 2);
        g4_buf_str(&b, "{}");
        g4_repeat(&b, "}}", DEEP / 2);
        g4_buf_str(&b, "}}]}");
        g4_expect_reading("a deep schema", &b, openai, G4_OK);
        b.len = 0;

        g4_buf_str(&b, "{\"messages\":[" G4_HI
                       "],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":"
                       "{\"type\":\"object\",\"properties\":{\"a\":");
        g4_repeat(&b, "{\"type\":\"array\",\"items\":{\"properties\":{\"a\":", DEEP / 3);
        g4_buf_str(&b, "{}");
        g4_repeat(&b, "}}}", DEEP / 3);
        g4_buf_str(&b, "}}}}]}");
        g4_expect_reading("a schema of deep arrays", &b, openai, G4_OK);
        b.len = 0;

        g4_buf_str(&b, "[{\"role\":\"user\",\"content\":\"x\",\"tool_responses\":[{\"name\":\"f\",\"response\":");
        g4_repeat(&b, "{\"a\":", DEEP);
        g4_buf_str(&b, "1");
        g4_repeat(&b, "}", DEEP);
        g4_buf_str(&b, "}]}]");
        g4_expect_reading("a deep response", &b, openai, G4_OK);
        b.len = 0;
    }
    g4_buf_free(&b);
}

/* Plain messages with many parts and calls. */
static void g4_test_long_messages(void)
{
    enum { N = 32000 };
    g4_part *calls = calloc(N, sizeof *calls), *results = calloc(N, sizeof *results);
    char(*ids)[16] = calloc(N, sizeof *ids);
    for (int i = 0; i < N; i++) {
        snprintf(ids[i], sizeof ids[i], "id%d", i);
        calls[i] = (g4_part) { .kind = G4_PART_TOOL_CALL, .name = i % 2 ? "f" : "g", .id = ids[i] };
        results[N - 1 - i] = (g4_part) { .kind = G4_PART_TOOL_RESULT, .id = ids[i], .text = "ok" };
    }
    const g4_message m[] = { { .role = G4_ROLE_MODEL, .parts = calls, .n_parts = N },
                             { .role = G4_ROLE_TOOL, .parts = results, .n_parts = N } };
    g4_chat *c;
    g4_error err = { 0 };
    const double start = g4_seconds();
    const g4_status st = g4_chat_open(&c, NULL, m, 2, &(g4_chat_options) { .template_name = "31b-2026-07" }, &err);
    G4_EXPECT(st == G4_OK && g4_seconds() - start < 3, "%s, %.2f s", err.message, g4_seconds() - start);
    printf("  %-28s %8d parts  %.3f s\n", "plain messages", 2 * N, g4_seconds() - start);
    g4_chat_close(c);
    free(calls);
    free(results);
    free(ids);
}

/* ---- Memory that runs out ------------------------------------------------------------------------ */

static void g4_test_memory(void)
{
    static const char json[] = "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{"
                               "\"url\":\"data:,P6%0A2%201%0A255%0A"
                               "abcdef\"}}]},{\"role\":\"assistant\",\"refusal\":\"no\"},{\"role\":\"assistant\","
                               "\"tool_calls\":[{\"id\":\"1\",\"name\":\"f\","
                               "\"arguments\":\"{\\\"a\\\":1}\"},{\"function\":{}}]},{\"role\":\"tool\",\"content\":"
                               "\"x\",\"tool_call_id\":\"1\"}],"
                               "\"tools\":[{\"name\":\"f\",\"inputSchema\":{}}],\"stop\":\"x\",\"logit_bias\":{\"1\":2}"
                               ",\"tool_choice\":{\"type\":"
                               "\"allowed_tools\",\"mode\":\"auto\",\"tools\":[{\"type\":\"function\",\"name\":\"f\"}]}"
                               ",\"response_format\":{\"type\":"
                               "\"json_object\"}}";
    g4_failing f = { 0, -1, 0 };
    const g4_allocator al = g4_failing_allocator(&f);
    long n_failures = 0;
    for (long k = 0; k < 500; k++) {
        g4_request *r;
        g4_error err = { 0 };
        f = (g4_failing) { 0, k, 0 };
        const g4_status st = g4_request_read(&r, json, sizeof json - 1, &al, NULL, &err);
        if ((st == G4_OK) != (f.calls <= k) || (st != G4_OK && (st != G4_ERR_MEMORY || r != NULL)))
            G4_EXPECT(0, "allocation %ld: %s %s", k, g4_status_name(st), err.message);
        g4_request_close(r);
        if (f.live != 0) G4_EXPECT(0, "allocation %ld: %ld live", k, f.live);
        if (f.calls <= k) break;
        n_failures++;
    }
    G4_EXPECT(n_failures >= 8, "%ld failures", n_failures);
    const g4_part part = { .kind = G4_PART_TEXT, .text = "x" };
    const g4_answer c = { .parts = &part, .n_parts = 1 };
    for (long k = 0; k < 100; k++) {
        g4_buf b = { 0 };
        f = (g4_failing) { 0, k, 0 };
        const g4_status st = g4_answer_write(&c, g4_append, &b, &al, NULL);
        if (st != (f.calls > k ? G4_ERR_MEMORY : G4_OK) || f.live != 0 || (st != G4_OK && b.len != 0))
            G4_EXPECT(0, "allocation %ld: %s, %ld live", k, g4_status_name(st), f.live);
        g4_buf_free(&b);
        if (f.calls <= k) break;
        G4_EXPECT(k < 99, "%ld allocations", k);
    }
}

/* A user who says nothing is not answered; in the middle of a conversation that is as it was. */
static void g4_test_nothing(void)
{
    static const char *const nothing[] = { "\"\"",
                                           "\" \\n\\u3000\"",
                                           "null",
                                           "[]",
                                           "[{\"type\":\"text\",\"text\":\"\"}]",
                                           "[{\"type\":\"text\",\"text\":\" \"},{\"type\":\"text\",\"text\":\"\"}]" };
    char json[400];
    g4_error err = { 0 };
    g4_request *r;
    for (size_t i = 0; i < sizeof nothing / sizeof *nothing; i++) {
        snprintf(json, sizeof json, "[" G4_HI ",{\"role\":\"user\",\"content\":%s}]", nothing[i]);
        g4_expect_request(json, "messages[1].content: the user says and shows nothing: there is nothing to answer",
                          __LINE__);
        snprintf(json, sizeof json, "[{\"role\":\"user\",\"content\":%s}," G4_HI "]", nothing[i]);
        G4_EXPECT(g4_request_read(&r, json, strlen(json), NULL, NULL, &err) == G4_OK, "%s: %s", json, err.message);
        g4_request_close(r);
    }
    G4_READS("{\"role\":\"user\"}", "messages[0].content: the user says and shows nothing: there is nothing to answer");
}

int main(void)
{
    g4_test_parts();
    g4_test_nothing();
    g4_test_calls();
    g4_test_tools();
    g4_test_options();
    g4_test_sampling();
    g4_test_media();
    g4_test_answers();
    g4_test_long();
    g4_test_long_messages();
    g4_test_request_until();
    g4_test_memory();
    G4_EXPECT(g4_replay("tests/fuzz/corpus_messages", LLVMFuzzerTestOneInput, 20) > 100, "no corpus of messages");
    return g4_test_end();
}
