/* schema_lines MODEL.g4 strict|loosened COUNT - a filter for tests in Python: each line of stdin is a JSON Schema, then
 * JSON texts, with tabs between them. Each line of stdout is {"error": ...}, or {"warnings": [text, ...], "samples":
 * [text, ...], "accepts": [0 or 1, ...], "dead": n, "long": n}: what a model that knows nothing writes under it in
 * COUNT texts (those that got too long are only counted), how often it was led into a dead end, and which of the texts
 * it could write. */
#include "constrained.h"
#include "sampler.h"

enum { MAX_TOKENS = 300 };

/* Everything is written into the list; returns how often there was no way on, and counts what got too long. */
static int g4_sample_all(g4_buf *out, g4_grammar *g, const g4_tokenizer *t, int count, int *n_long)
{
    g4_sampler r = { .state = 1 };
    int dead = 0, written = 0;
    for (int i = 0; i < count; i++) {
        g4_buf text = { 0 };
        const int whole = g4_sample_text(&r, g, t, MAX_TOKENS, &text);
        dead += whole < 0;
        *n_long += whole == 0;
        if (whole == 1) {
            if (written++ > 0) g4_buf_str(out, ", ");
            g4_json_quote(out, text.data == NULL ? "" : text.data, text.len);
        }
        g4_buf_free(&text);
    }
    return dead;
}

/* 0 or 1, or -1: mask and reading do not agree. */
static int g4_accepts(g4_grammar *g, const g4_tokenizer *t, const char *text)
{
    g4_trial r;
    g4_trial_run(&r, g, t, text, strlen(text), 0, 0);
    return r.disagrees ? -1 : r.may_end;
}

static void g4_show_line(g4_buf *out, const g4_engine *e, const g4_line *line, g4_exactness how, int count)
{
    const g4_tokenizer *t = g4_engine_tokenizer(e);
    g4_buf warnings = { 0 };
    g4_grammar *g;
    g4_error err;
    int n_long = 0;
    if (g4_constrained_open(&g, e, line->fields[0], how, &warnings, &err) != G4_OK) {
        g4_buf_str(out, "{\"error\": ");
        g4_json_quote(out, err.message, strlen(err.message));
    } else {
        g4_buf_fmt(out, "{\"warnings\": [%s], \"samples\": [", warnings.len > 0 ? warnings.data : "");
        const int dead = g4_sample_all(out, g, t, count, &n_long);
        g4_buf_fmt(out, "], \"dead\": %d, \"long\": %d, \"accepts\": [", dead, n_long);
        for (int i = 1; i < line->n; i++) g4_buf_fmt(out, i > 1 ? ",%d" : "%d", g4_accepts(g, t, line->fields[i]));
        g4_buf_str(out, "]");
    }
    g4_buf_str(out, "}");
    g4_grammar_close(g);
    g4_buf_free(&warnings);
}

int main(int argc, char **argv)
{
    g4_engine *e = NULL;
    g4_error err = { 0 };
    if (argc != 4 || g4_engine_open(&e, &(g4_engine_options) { .model_path = argv[1], .n_threads = 1 }, &err)) {
        fprintf(stderr, "usage: schema_lines MODEL.g4 strict|loosened COUNT < lines\n%s\n", err.message);
        return 2;
    }
    g4_line line = { 0 };
    while (g4_line_read(&line) > 0) {
        g4_buf out = { 0 };
        g4_show_line(&out, e, &line, strcmp(argv[2], "strict") == 0 ? G4_STRICT : G4_LOOSENED, atoi(argv[3]));
        if (out.failed) abort();
        puts(out.data);
        fflush(stdout);
        g4_buf_free(&out);
    }
    g4_line_free(&line);
    g4_engine_close(e);
    return 0;
}
