/* answer_lines MODEL [KV [ISA]] - a filter for tools/eval_tiny.py: each line of stdin is a conversation as `gemma4
 * render` takes it, with media by path; each line of stdout is {"answer": ..., "margin": ..., "nll": ...} or {"error":
 * ...}. KV: f16, f32 or q8_0. */
#include "tiny.h"

int main(int argc, char **argv)
{
    g4_error err = { G4_OK, "" };
    g4_engine *e = NULL;
    if (argc < 2 || argc > 4) {
        fprintf(stderr, "usage: answer_lines MODEL [KV [ISA]] < conversations.jsonl\n");
        return 2;
    }
    const char *kv = argc > 2 ? argv[2] : "";
    g4_session_options so = { .kv = strcmp(kv, "f32") == 0    ? G4_KV_USE_F32
                                    : strcmp(kv, "q8_0") == 0 ? G4_KV_USE_Q8_0
                                                              : G4_KV_DEFAULT };
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = argv[1], .isa = argc > 3 ? argv[3] : NULL }, &err) !=
        G4_OK) {
        fprintf(stderr, "answer_lines: %s\n", err.message);
        return 1;
    }
    char *line = NULL;
    size_t cap = 0, len;
    while (g4_tiny_line(stdin, &line, &cap, &len)) {
        g4_session *s = NULL;
        g4_tiny_answer a = { 0 };
        g4_buf out = { 0 };
        g4_status st = g4_session_open(&s, e, &so, &err);
        if (st == G4_OK) st = g4_tiny_ask(s, e, line, len, &a, &err);
        if (st == G4_OK) {
            g4_buf_str(&out, "{\"answer\": ");
            g4_json_quote(&out, a.text.data ? a.text.data : "", a.text.len);
            g4_buf_fmt(&out, ", \"margin\": %.4f, \"nll\": %.6f}\n", (double)a.margin, a.nll);
        } else {
            g4_buf_str(&out, "{\"error\": ");
            g4_json_quote(&out, err.message, strlen(err.message));
            g4_buf_str(&out, "}\n");
        }
        fwrite(out.data, 1, out.len, stdout);
        fflush(stdout);
        g4_buf_free(&out);
        g4_buf_free(&a.text);
        free(a.first);
        g4_session_close(s);
    }
    free(line);
    g4_engine_close(e);
    return 0;
}
