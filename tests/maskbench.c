/* maskbench MODEL.g4 strict|loosened - a filter for tests/maskbench.py: each line of stdin is a JSON Schema, then texts
 * with + (timed) or - before each, with tabs between them. Each line of stdout says in JSON what came of it:
 *   {"error": text, "compile": s, "peak": bytes}, or
 *   {"warnings": [...], "compile": s, "first": s, "peak": bytes,
 *    "tests": [{"n", "read", "end", "masks": [ns, ...], "reading": ns}, ...]}
 * The first line is {"prepared": s}, what the first grammar of the engine costs once. A case has LIMIT_SECONDS of the
 * processor, then SIGPROF ends the program, and LIMIT_BYTES. */
#include "constrained.h"

#include <sys/time.h>

enum { LIMIT_SECONDS = 5 };
#define LIMIT_BYTES ((size_t)1 << 30)

typedef struct {
    size_t used, peak, limit;
} g4_account;

static void *g4_account_alloc(void *user, size_t size, size_t align)
{
    g4_account *a = user;
    void *p = a->used + size > a->limit ? NULL : aligned_alloc(align, g4_round_up(size, align));
    if (p == NULL) return NULL;
    a->used += size;
    a->peak = g4_max_size(a->peak, a->used);
    return p;
}

static void g4_account_free(void *user, void *p, size_t size)
{
    g4_account *a = user;
    a->used -= size;
    free(p);
}

static void g4_set_alarm(int seconds)
{
    const struct itimerval t = { .it_value = { .tv_sec = seconds } };
    if (setitimer(ITIMER_PROF, &t, NULL) != 0) abort();
}

static void g4_show_trial(g4_buf *out, const g4_trial *r)
{
    g4_buf_fmt(out, "{\"n\": %d, \"read\": %d, \"end\": %d", r->n_tokens, r->read, r->may_end);
    if (r->disagrees) g4_buf_str(out, ", \"disagrees\": true");
    if (r->err.code != G4_OK) {
        g4_buf_str(out, ", \"failed\": ");
        g4_json_quote(out, r->err.message, strlen(r->err.message));
    }
    g4_buf_fmt(out, ", \"reading\": %.0f", 1e9 * r->reading);
    if (r->masks != NULL) {
        g4_buf_str(out, ", \"masks\": [");
        for (int i = 0; i < r->n_masks; i++) g4_buf_fmt(out, i > 0 ? ",%.0f" : "%.0f", 1e9 * r->masks[i]);
        g4_buf_str(out, "]");
    }
    g4_buf_str(out, "}");
}

static void g4_bench_case(g4_buf *out, const g4_engine *e, const g4_line *line, g4_exactness how)
{
    g4_buf warnings = { 0 }, tests = { 0 };
    g4_grammar *g;
    g4_error err;
    double first = 0;
    const double start = g4_thread_seconds();
    const g4_status st = g4_constrained_open(&g, e, line->fields[0], how, &warnings, &err);
    const double compile = g4_thread_seconds() - start;
    if (st != G4_OK) {
        g4_buf_fmt(out, "{\"code\": \"%s\", \"error\": ", g4_status_name(st));
        g4_json_quote(out, err.message, strlen(err.message));
    } else {
        for (int i = 1; i < line->n; i++) {
            const char *text = line->fields[i] + 1;
            g4_trial r;
            g4_trial_run(&r, g, g4_engine_tokenizer(e), text, strlen(text), start, text[-1] == '+');
            if (i == 1) first = r.first;
            if (i > 1) g4_buf_str(&tests, ", ");
            g4_show_trial(&tests, &r);
            free(r.masks);
        }
        g4_buf_fmt(out, "{\"warnings\": [%s], \"first\": %.9f, \"tests\": [%s]", warnings.len > 0 ? warnings.data : "",
                   first, tests.len > 0 ? tests.data : "");
    }
    g4_buf_fmt(out, ", \"compile\": %.9f", compile);
    g4_grammar_close(g);
    g4_buf_free(&warnings);
    g4_buf_free(&tests);
}

int main(int argc, char **argv)
{
    g4_account account = { .limit = SIZE_MAX };
    const g4_allocator a = { .alloc_fn = g4_account_alloc, .free_fn = g4_account_free, .user = &account };
    g4_engine *e = NULL;
    g4_error err = { 0 };
    const int is_strict = argc == 3 && strcmp(argv[2], "strict") == 0;
    if (argc != 3 || (!is_strict && strcmp(argv[2], "loosened") != 0)) {
        fprintf(stderr, "usage: maskbench MODEL.g4 strict|loosened < cases\n");
        return 2;
    }
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = argv[1], .n_threads = 1, .allocator = &a }, &err)) {
        fprintf(stderr, "maskbench: %s\n", err.message);
        return 1;
    }
    g4_line line = { 0 }, first = { .fields = (char *[]) { "{\"const\": 1}", "+1" }, .n = 2 };
    g4_buf out = { 0 };
    const double start = g4_thread_seconds();
    g4_bench_case(&out, e, &first, is_strict ? G4_STRICT : G4_LOOSENED);
    printf("{\"prepared\": %.6f}\n", g4_thread_seconds() - start);
    fflush(stdout);
    while (g4_line_read(&line) > 0) {
        out.len = 0;
        const size_t base = account.peak = account.used;
        account.limit = base + LIMIT_BYTES;
        g4_set_alarm(LIMIT_SECONDS);
        g4_bench_case(&out, e, &line, is_strict ? G4_STRICT : G4_LOOSENED);
        g4_set_alarm(0);
        account.limit = SIZE_MAX;
        g4_buf_fmt(&out, ", \"peak\": %zu}", account.peak - base);
        if (out.failed) abort();
        puts(out.data);
        fflush(stdout);
    }
    g4_buf_free(&out);
    g4_line_free(&line);
    g4_engine_close(e);
    return 0;
}
