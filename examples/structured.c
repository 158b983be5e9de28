/* structured MODEL.g4 [TEXT] - facts from a text as JSON that always fits a schema, thinking first. */
#include <stdio.h>

#include "gemma4.h"

static const char schema[] = "{\"type\": \"object\", \"properties\": {\"name\": {\"type\": \"string\", \"maxLength\": "
                             "40}, \"age\": {\"type\": \"integer\", \"minimum\": 0, "
                             "\"maximum\": 130}, \"job\": {\"enum\": [\"sailor\", \"baker\", \"teacher\", "
                             "\"other\"]}}, \"required\": [\"name\", \"age\", \"job\"]}";

int main(int argc, char **argv)
{
    g4_error err = { G4_OK, "" };
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_chat *chat = NULL;
    g4_grammar *grammar = NULL;
    g4_response *answer = NULL;
    g4_part part = { .kind = G4_PART_TEXT,
                     .text = argc > 2 ? argv[2] : "Ada, 36, bakes bread in Bergen. Who is this? Answer in JSON." };
    g4_message message = { .role = G4_ROLE_USER, .parts = &part, .n_parts = 1 };
    g4_chat_options think = { .thinking = 1 };
    g4_generate_options limits = { .max_tokens = 600 };
    g4_respond_options options = { .generate = &limits };
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = argc > 1 ? argv[1] : "models/tiny.g4" }, &err))
        goto done;
    if (g4_session_open(&s, e, NULL, &err)) goto done;
    if (g4_grammar_from_schema(&grammar, e, schema, 0, NULL, &err)) goto done;
    if (g4_chat_open(&chat, e, &message, 1, &think, &err) || g4_session_sync_chat(s, chat, NULL, &err)) goto done;
    options.guide.grammar = grammar;
    options.guide.think_budget = 200;
    if (g4_session_respond(s, chat, &options, &answer, NULL, &err)) goto done;
    int n;
    const g4_part *p = g4_response_parts(answer, &n);
    for (int i = 0; i < n; i++) {
        if (p[i].kind == G4_PART_TEXT) printf("%s\n", p[i].text);
        if (p[i].incomplete) fprintf(stderr, "structured: the answer was cut off\n");
    }
done:
    if (err.code != G4_OK) fprintf(stderr, "structured: %s\n", err.message);
    g4_response_close(answer);
    g4_grammar_close(grammar);
    g4_chat_close(chat);
    g4_session_close(s);
    g4_engine_close(e);
    return err.code != G4_OK;
}
