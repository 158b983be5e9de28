/* test_serve_rush.c - thousands of requests to gemma4 serve, of all kinds, most of which break off somewhere: memory,
 * threads and descriptors stay as they are. G4_RUSH says how many; make test asks 500, make test-rush 10,000. */
#include "serve_client.h"
#include "test.h"

enum { N_RUSHERS = 4, N_STAGES = 10 };
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define GROWTH 1e9 /* they keep what was freed for a while */
#else
#define GROWTH 8e6 /* bytes, behind the first half */
#endif

static const struct {
    const char *path, *body;
} g4_rushed[] = {
    { CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":5}" },
    { CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"hello there\"}],\"max_tokens\":40,\"stream\":true}" },
    { CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"response_format\":{\"type\":\"json_object\"},"
            "\"max_tokens\":30}" },
    { CHAT, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"nonsense\":{\"x\":[1,2]},\"n\":0}" },
    { CHAT, "{\"mess" },
    { "/v1/messages", "{\"max_tokens\":20,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}" },
    { "/v1/responses", "{\"input\":\"hi\",\"max_output_tokens\":9,\"stream\":true}" },
    { "/v1/completions", "{\"prompt\":[\"once upon\",\"a time\"],\"max_tokens\":9,\"stream\":true}" },
    { "/v1/completions", "{\"prompt\":\"once upon\",\"max_tokens\":5,\"echo\":true,\"logprobs\":2}" },
    { "/v1/audio/transcriptions", "{}" },
    { "/tokenize", "{\"content\":\"once upon\",\"with_pieces\":true}" },
};
enum { N_RUSHED = sizeof g4_rushed / sizeof g4_rushed[0] };

typedef struct {
    const g4_server *s;
    unsigned seed;
    int n, n_answered;
} g4_rusher;

/* One of them, broken off anywhere or not. Returns whether it was answered. */
static int g4_rush_one(const g4_rusher *r, unsigned what, char *answer)
{
    const unsigned kind = what % N_RUSHED, how = what / 16 % 4, where = what / 64;
    char *text = g4_request_text("POST", g4_rushed[kind].path, "", g4_rushed[kind].body);
    const size_t n = strlen(text);
    const int fd = g4_connect(r->s);
    size_t len = 0;
    int status = 0;
    if (how == 0) { /* at any byte of the request */
        g4_send(fd, text, where % n);
    } else if (how == 1) { /* at any byte of the answer */
        g4_send(fd, text, n);
        while (len < where % 2000 && g4_receive(fd, answer, &len, 0.2) > 0) {
        }
    } else if (how == 2) { /* torn down, not closed */
        const struct linger now = { 1, 0 };
        g4_send(fd, text, n);
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    } else {
        g4_send(fd, text, n);
        status = g4_read_answer(fd, answer, 20);
    }
    close(fd);
    free(text);
    return status > 0;
}

static void *g4_rusher_main(void *arg)
{
    g4_rusher *r = arg;
    char *answer = malloc(TEXT);
    for (int i = 0; i < r->n; i++) r->n_answered += g4_rush_one(r, (unsigned)rand_r(&r->seed), answer);
    free(answer);
    return NULL;
}

/* Bytes of the server that are in memory. */
static double g4_resident(const g4_server *s)
{
    char path[64];
    double pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)s->pid);
    FILE *f = fopen(path, "r");
    if (f != NULL && fscanf(f, "%*s %lf", &pages) != 1) pages = 0;
    if (f != NULL) fclose(f);
    return pages * (double)sysconf(_SC_PAGESIZE);
}

typedef struct {
    int threads, files;
    double bytes;
} g4_used;

/* What it uses once nobody is there. */
static g4_used g4_use_at_rest(const g4_server *s, const g4_used *before)
{
    g4_used u = { 0 };
    g4_until(s, "running", 0, 5);
    g4_until(s, "connections", 1, 15);
    for (double until = g4_now() + 5; g4_now() < until;) { /* the last thread may still be closing */
        g4_nap(0.02);
        u = (g4_used) { g4_count(s, "task"), g4_count(s, "fd"), g4_resident(s) };
        if (before == NULL || (u.threads <= before->threads && u.files <= before->files)) break;
    }
    return u;
}

/* A tenth of all. Returns how many waited for their answer and got it. */
static int g4_rush(const g4_server *s, int n, unsigned seed)
{
    g4_rusher rushers[N_RUSHERS];
    pthread_t threads[N_RUSHERS];
    int n_answered = 0;
    for (int i = 0; i < N_RUSHERS; i++) {
        rushers[i] = (g4_rusher) { .s = s, .seed = seed * N_RUSHERS + (unsigned)i + 1, .n = n / N_RUSHERS };
        pthread_create(&threads[i], NULL, g4_rusher_main, &rushers[i]);
    }
    for (int i = 0; i < N_RUSHERS; i++) {
        pthread_join(threads[i], NULL);
        n_answered += rushers[i].n_answered;
    }
    return n_answered;
}

int main(void)
{
    const char *const more[] = { "--max-queue", "100", NULL };
    const char *wish = getenv("G4_RUSH");
    const int n = wish != NULL ? atoi(wish) : 500;
    signal(SIGPIPE, SIG_IGN);
    const g4_server s = g4_serve(more);
    G4_EXPECT(s.port > 0, "the server has begun");
    if (s.port == 0) return g4_test_end();
    const g4_used first = g4_use_at_rest(&s, NULL);
    g4_used half = first, now = first;
    int n_answered = 0;
    for (unsigned stage = 0; stage < N_STAGES; stage++) {
        n_answered += g4_rush(&s, n / N_STAGES, stage);
        now = g4_use_at_rest(&s, &first);
        if (wish != NULL)
            printf("%6d requests: %3d threads, %3d descriptors, %.1f MB in memory\n", (int)(stage + 1) * n / N_STAGES,
                   now.threads - 2, now.files - 3, now.bytes / 1e6);
        if (stage == N_STAGES / 2 - 1) half = now;
    }
    G4_EXPECT(n_answered > n / 8, "%d of %d waited for their answer and got it", n_answered, n);
    G4_EXPECT(now.threads <= first.threads, "%d threads, %d before", now.threads, first.threads);
    G4_EXPECT(now.files <= first.files, "%d descriptors, %d before", now.files, first.files);
    G4_EXPECT(now.bytes <= half.bytes + GROWTH, "%.1f MB in memory, half-way %.1f", now.bytes / 1e6, half.bytes / 1e6);
    G4_EXPECT(g4_metric(&s, "running") == 0 && g4_metric(&s, "waiting") == 0, "nobody is left");
    G4_EXPECT(g4_stop(&s) == 0, "the end");
    return g4_test_end();
}
