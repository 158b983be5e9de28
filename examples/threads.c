/* threads MODEL.g4 - two conversations at once: one engine, a session for each thread. The engine's workers take turns
 * between them. */
#include <pthread.h>
#include <stdio.h>

#include "gemma4.h"

typedef struct {
    g4_engine *e;
    const char *question;
    char answer[4000];
    g4_error err;
} job;

static void *work(void *user)
{
    job *j = user;
    g4_session *s = NULL;
    g4_chat *chat = NULL;
    g4_response *answer = NULL;
    g4_part part = { .kind = G4_PART_TEXT, .text = j->question };
    g4_message message = { .role = G4_ROLE_USER, .parts = &part, .n_parts = 1 };
    g4_generate_options limits = { .max_tokens = 100 };
    g4_respond_options options = { .generate = &limits };
    if (g4_session_open(&s, j->e, NULL, &j->err) == G4_OK &&
        g4_chat_open(&chat, j->e, &message, 1, NULL, &j->err) == G4_OK &&
        g4_session_sync_chat(s, chat, NULL, &j->err) == G4_OK &&
        g4_session_respond(s, chat, &options, &answer, NULL, &j->err) == G4_OK) {
        int n;
        const g4_part *p = g4_response_parts(answer, &n);
        for (int i = 0; i < n; i++)
            if (p[i].kind == G4_PART_TEXT) snprintf(j->answer, sizeof j->answer, "%s", p[i].text);
    }
    g4_response_close(answer);
    g4_chat_close(chat);
    g4_session_close(s);
    return NULL;
}

int main(int argc, char **argv)
{
    g4_error err = { G4_OK, "" };
    g4_engine *e = NULL;
    job jobs[2] = { { .question = "Name three rivers." }, { .question = "Name three mountains." } };
    pthread_t threads[2];
    int failed =
        g4_engine_open(&e, &(g4_engine_options) { .model_path = argc > 1 ? argv[1] : "models/tiny.g4" }, &err) != G4_OK;
    if (failed) fprintf(stderr, "threads: %s\n", err.message);
    int started = 0;
    for (; started < 2 && !failed; started++) {
        jobs[started].e = e;
        if (pthread_create(&threads[started], NULL, work, &jobs[started]) != 0) failed = 1;
        if (failed) break;
    }
    for (int i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
        if (jobs[i].err.code != G4_OK)
            fprintf(stderr, "threads: %s\n", jobs[i].err.message);
        else
            printf("%s\n%s\n", jobs[i].question, jobs[i].answer);
        failed = failed || jobs[i].err.code != G4_OK;
    }
    g4_engine_close(e);
    return failed;
}
