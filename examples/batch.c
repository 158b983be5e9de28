/* batch MODEL.g4 - answer several questions at once: their answers share forward passes, so that the weights are read
 * once for all of them, and each is what it would be alone. */
#include <stdio.h>

#include "gemma4.h"

enum { N = 4 };

static void done(void *user, g4_session *s, g4_status status, g4_response *answer, const g4_result *result,
                 const g4_error *err)
{
    const char *text = user;
    int n = 0;
    const g4_part *p = status == G4_OK ? g4_response_parts(answer, &n) : NULL;
    (void)s;
    if (err != NULL) fprintf(stderr, "batch: %s: %s\n", text, err->message);
    for (int i = 0; i < n; i++)
        if (p[i].kind == G4_PART_TEXT) printf("%s\n  %s (%d tokens)\n", text, p[i].text, result->n_tokens);
    g4_response_close(answer);
}

/* The question joins the batch. The chat may be closed then. */
static g4_status ask(g4_batch *b, g4_session *s, g4_engine *e, const char *question, g4_error *err)
{
    static const g4_generate_options limits = { .max_tokens = 60 };
    static const g4_respond_options options = { .generate = &limits };
    const g4_part rule = { .kind = G4_PART_TEXT, .text = "Be kind and short." };
    const g4_part part = { .kind = G4_PART_TEXT, .text = question };
    const g4_message messages[] = { { .role = G4_ROLE_SYSTEM, .parts = &rule, .n_parts = 1 },
                                    { .role = G4_ROLE_USER, .parts = &part, .n_parts = 1 } };
    const g4_batch_respond_request request = { .respond = &options, .done = done, .user = (void *)question };
    g4_chat *chat = NULL;
    g4_status status = g4_chat_open(&chat, e, messages, 2, NULL, err);
    if (status == G4_OK) status = g4_batch_respond(b, s, chat, &request, err);
    g4_chat_close(chat);
    return status;
}

int main(int argc, char **argv)
{
    static const char *const questions[N] = { "What is the opposite of hard?", "What is 39 - 1?", "Name three rivers.",
                                              "My favorite color is purple." };
    g4_error err = { G4_OK, "" };
    g4_engine *e = NULL;
    g4_batch *b = NULL;
    g4_session *s[N] = { NULL };
    g4_status status =
        g4_engine_open(&e, &(g4_engine_options) { .model_path = argc > 1 ? argv[1] : "models/tiny.g4" }, &err);
    if (status == G4_OK) status = g4_batch_open(&b, e, NULL, &err);
    for (int i = 0; i < N && status == G4_OK; i++) {
        status = g4_session_open(&s[i], e, &(g4_session_options) { .n_ctx = 1024 }, &err);
        if (status == G4_OK) status = ask(b, s[i], e, questions[i], &err);
    }
    if (status == G4_OK) status = g4_batch_run(b, &err);
    if (status != G4_OK) fprintf(stderr, "batch: %s\n", err.message);
    g4_batch_close(b);
    for (int i = 0; i < N; i++) g4_session_close(s[i]);
    g4_engine_close(e);
    return status != G4_OK;
}
