/* schema_lines VOCAB.g4 COUNT - a filter for tests/test_schema_valid.py: each line of stdin is a JSON Schema, then JSON
 * texts, with tabs between them. Each line of stdout is {"error": ...}, or {"samples": [text, ...], "accepts": [0 or 1,
 * ...], "dead": n}: what a model that knows nothing writes under it, which of the texts it could write, and how often
 * it was led into a dead end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sampler.h"
#include "vocab.h"

/* Could the grammar's writer have written this text? */
static int g4_accepts(g4_grammar *g, const g4_tokenizer *t, const char *text, size_t len)
{
    g4_tokens ids = { 0 };
    int32_t state = g4_grammar_start(g);
    g4_tokenizer_encode(t, NULL, text, len, 0, &ids, NULL, NULL);
    for (size_t i = 0; i < ids.n && state != 0; i++) {
        state = g4_grammar_settle(g, state);
        const uint32_t *mask = g4_grammar_mask(g, state);
        int32_t next = g4_grammar_read(g, state, ids.ids[i]);
        if ((mask[ids.ids[i] / 32] >> (ids.ids[i] % 32) & 1) != (next != 0)) abort(); /* mask and reading must agree */
        state = next;
    }
    g4_free(NULL, ids.ids);
    return g4_grammar_accepts(g, state);
}

int main(int argc, char **argv)
{
    g4_tokenizer t;
    uint8_t *blob = argc == 3 ? g4_vocab_open(&t, argv[1]) : NULL;
    if (blob == NULL) {
        fprintf(stderr, "usage: schema_lines VOCAB.g4 COUNT < schemas.jsonl\n");
        return 2;
    }
    char *line = NULL;
    size_t cap = 0, len = 0;
    g4_sampler r = { .state = 1 };
    for (int ch; (ch = getchar()) != EOF;) {
        if (len + 1 >= cap) {
            char *p = realloc(line, cap = cap == 0 ? 65536 : cap * 2);
            if (p == NULL) break;
            line = p;
        }
        if (ch != '\n') {
            line[len++] = (char)ch;
            continue;
        }
        g4_grammar *g;
        g4_error err;
        g4_buf out = { 0 };
        const char *tab = memchr(line, '\t', len);
        size_t schema_len = tab != NULL ? (size_t)(tab - line) : len;
        if (g4_grammar_schema(&g, NULL, &t, line, schema_len, NULL, &err) != G4_OK) {
            g4_buf_str(&out, "{\"error\": ");
            g4_json_quote(&out, err.message, strlen(err.message));
        } else {
            g4_buf_str(&out, "{\"samples\": [");
            int written = 0, dead = 0;
            for (int i = 0; i < atoi(argv[2]); i++) {
                g4_buf text = { 0 };
                int whole = g4_sample_text(&r, g, &t, 300, &text);
                dead |= whole < 0;
                if (whole == 1) {
                    if (written++ > 0) g4_buf_str(&out, ", ");
                    g4_json_quote(&out, text.data == NULL ? "" : text.data, text.len);
                }
                g4_buf_free(&text);
            }
            g4_buf_fmt(&out, "], \"dead\": %d, \"accepts\": [", dead);
            while (tab != NULL) {
                const char *text = tab + 1, *next = memchr(text, '\t', len - (size_t)(text - line));
                size_t n = (size_t)((next != NULL ? next : line + len) - text);
                g4_buf_fmt(&out, "%d%s", g4_accepts(g, &t, text, n), next != NULL ? ", " : "");
                tab = next;
            }
            g4_buf_str(&out, "]");
        }
        g4_buf_str(&out, "}");
        puts(out.data == NULL ? "" : out.data);
        fflush(stdout);
        g4_buf_free(&out);
        g4_grammar_close(g);
        len = 0;
    }
    free(line);
    free(blob);
    return 0;
}
