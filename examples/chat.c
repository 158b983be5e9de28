/* chat MODEL.g4 - a conversation in 30 lines: each line of input is a message, the answer streams. Only what is new is
 * evaluated. */
#include <stdio.h>
#include <string.h>

#include "gemma4.h"

static int print(void *user, int index, const g4_part *delta)
{
    (void)user, (void)index;
    if (delta->kind == G4_PART_TEXT) fwrite(delta->text, 1, delta->text_len, stdout);
    return fflush(stdout);
}

int main(int argc, char **argv)
{
    enum { TURNS = 50 };
    static char line[TURNS][2000];
    static g4_part ask[TURNS];
    static g4_message messages[2 * TURNS];
    static g4_response *answers[TURNS];
    g4_error err = { G4_OK, "" };
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_respond_options options = { .part = print };
    int n = 0;
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = argc > 1 ? argv[1] : "models/tiny.g4" }, &err))
        goto done;
    if (g4_session_open(&s, e, NULL, &err)) goto done;
    for (; n < TURNS && fgets(line[n], sizeof line[n], stdin) != NULL; n++) {
        g4_chat *chat = NULL;
        ask[n] = (g4_part) { .kind = G4_PART_TEXT, .text = line[n] };
        messages[2 * n] = (g4_message) { .role = G4_ROLE_USER, .parts = &ask[n], .n_parts = 1 };
        g4_status st = g4_chat_open(&chat, e, messages, 2 * n + 1, NULL, &err);
        if (st == G4_OK) st = g4_session_sync_chat(s, chat, NULL, &err);
        if (st == G4_OK) st = g4_session_respond(s, chat, &options, &answers[n], NULL, &err);
        g4_chat_close(chat);
        if (st != G4_OK) break;
        messages[2 * n + 1] = (g4_message) { .role = G4_ROLE_MODEL };
        messages[2 * n + 1].parts = g4_response_parts(answers[n], &messages[2 * n + 1].n_parts);
        printf("\n");
    }
done:
    if (err.code != G4_OK) fprintf(stderr, "chat: %s\n", err.message);
    for (int i = 0; i < TURNS; i++) g4_response_close(answers[i]);
    g4_session_close(s);
    g4_engine_close(e);
    return err.code != G4_OK;
}
