/* What clients from PyPI send (tests/data/requests.tsv, made by make_client_data.py from what `make test-clients`
 * records), each request answered in the form that its client reads. */
#include "serve_client.h"
#include "test.h"

typedef struct { /* a line */
    char *client, *path, *stream, *status, *body;
} g4_sent;

/* Take the next column off a line. */
static char *g4_column(char **rest)
{
    char *column = *rest, *end = strpbrk(column, "\t\n");
    if (end == NULL) return column;
    *end = '\0';
    *rest = end + 1;
    return column;
}

static const struct {
    const char *path;
    const char *whole, *events; /* what an answer contains */
} g4_forms[] = { { "/v1/chat/completions", "\"object\":\"chat.completion\"", "data: [DONE]\n\n" },
                 { "/v1/completions", "\"object\":\"text_completion\"", "data: [DONE]\n\n" },
                 { "/v1/messages", "\"type\":\"message\"", "event: message_stop\n" },
                 { "/v1/messages/count_tokens", "{\"input_tokens\":", NULL },
                 { "/v1/responses", "\"object\":\"response\"", "event: response.completed\n" } };

static void g4_test_sent(const g4_server *s, const g4_sent *r, char *answer)
{
    const int status = g4_ask(s, r->path, r->body, answer), streams = r->stream[0] == '1';
    G4_EXPECT(status == atoi(r->status), "%s %s %s: %d %.300s", r->client, r->path, r->body, status, answer);
    if (status != 200) {
        G4_EXPECT(strstr(answer, "{\"error\":{\"message\":\"") != NULL && strstr(answer, "\"param\":\"") != NULL,
                  "%s: %.300s", r->client, answer);
        return;
    }
    G4_EXPECT((strstr(answer, "text/event-stream") != NULL) == streams, "%s: %.300s", r->client, answer);
    for (size_t i = 0; i < sizeof g4_forms / sizeof g4_forms[0]; i++) {
        const char *form = streams ? g4_forms[i].events : g4_forms[i].whole;
        if (strcmp(g4_forms[i].path, r->path) == 0)
            G4_EXPECT(form != NULL && strstr(answer, form) != NULL, "%s %s: no %s in %.300s", r->client, r->path, form,
                      answer);
    }
}

int main(void)
{
    static const char *const none[] = { NULL };
    FILE *f = fopen("tests/data/requests.tsv", "r");
    char *line = NULL, *answer = malloc(TEXT);
    size_t room = 0;
    int n = 0;
    const g4_server s = g4_serve(none);
    G4_EXPECT(s.port > 0 && f != NULL, "the server and tests/data/requests.tsv are there");
    while (s.port > 0 && f != NULL && getline(&line, &room, f) > 0) {
        char *rest = line;
        g4_sent r = { .client = g4_column(&rest) };
        r.path = g4_column(&rest);
        r.stream = g4_column(&rest);
        r.status = g4_column(&rest);
        r.body = g4_column(&rest);
        g4_test_sent(&s, &r, answer);
        n++;
    }
    G4_EXPECT(n > 40, "%d requests", n);
    if (f != NULL) fclose(f);
    if (s.port > 0) G4_EXPECT(g4_stop(&s) == 0, "it ends when it is asked to");
    free(line);
    free(answer);
    return g4_test_end();
}
