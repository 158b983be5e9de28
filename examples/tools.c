/* tools MODEL.g4 [QUESTION] - the model calls a function of this program, gets its result and answers. Calls follow the
 * declared parameters: masks over the vocabulary see to that while sampling, so the arguments always parse. */
#include <stdio.h>
#include <string.h>

#include "gemma4.h"

static const char tools[] = "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": "
                            "\"Weather of a city, now.\", \"parameters\": {"
                            "\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\", \"maxLength\": "
                            "40}, \"unit\": {\"type\": \"string\", \"enum\": [\"C\", \"F\"]}},"
                            "\"required\": [\"city\"]}}}]";

int main(int argc, char **argv)
{
    g4_error err = { G4_OK, "" };
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_response *answer[4] = { NULL };
    g4_part ask = { .kind = G4_PART_TEXT, .text = argc > 2 ? argv[2] : "What is the weather in Oslo?" }, results[4][8];
    g4_message messages[9] = { { .role = G4_ROLE_USER, .parts = &ask, .n_parts = 1 } };
    g4_chat_options declared = { .tools = tools };
    g4_generate_options limits = { .max_tokens = 300 };
    int n = 1, calls = 1;
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = argc > 1 ? argv[1] : "models/tiny.g4" }, &err))
        goto done;
    if (g4_session_open(&s, e, NULL, &err)) goto done;
    for (int turn = 0; turn < 4 && calls > 0; turn++) {
        g4_chat *chat = NULL;
        g4_respond_options options = { .generate = &limits };
        options.guide.tool_choice =
            turn == 0 ? G4_TOOLS_REQUIRED : G4_TOOLS_NONE; /* G4_TOOLS_AUTO lets the model decide */
        g4_status st = g4_chat_open(&chat, e, messages, n, &declared, &err);
        if (st == G4_OK) st = g4_session_sync_chat(s, chat, NULL, &err);
        if (st == G4_OK) st = g4_session_respond(s, chat, &options, &answer[turn], NULL, &err);
        g4_chat_close(chat);
        if (st != G4_OK) break;
        int n_parts;
        const g4_part *parts = g4_response_parts(answer[turn], &n_parts);
        messages[n++] = (g4_message) { .role = G4_ROLE_MODEL, .parts = parts, .n_parts = n_parts };
        calls = 0;
        for (int i = 0; i < n_parts; i++) {
            if (parts[i].kind == G4_PART_TEXT) printf("%s\n", parts[i].text);
            if (parts[i].kind != G4_PART_TOOL_CALL || parts[i].incomplete || calls == 8) continue; /* cut off: none */
            printf("call %s(%s)\n", parts[i].name, parts[i].text); /* the arguments are one JSON object */
            results[turn][calls++] = (g4_part) { .kind = G4_PART_TOOL_RESULT,
                                                 .name = parts[i].name,
                                                 .text = "{\"sky\": \"sunny\", \"temperature\": 21}" };
        }
        if (calls > 0) messages[n++] = (g4_message) { .role = G4_ROLE_TOOL, .parts = results[turn], .n_parts = calls };
    }
done:
    if (err.code != G4_OK) fprintf(stderr, "tools: %s\n", err.message);
    for (int i = 0; i < 4; i++) g4_response_close(answer[i]);
    g4_session_close(s);
    g4_engine_close(e);
    return err.code != G4_OK;
}
