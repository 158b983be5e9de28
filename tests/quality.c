/* quality - the questions of tests/data/tiny.jsonl by weight type and key/value type: answers that are right, and the
 * KL divergence of the distribution of each answer's first token, from q8_0 weights with float32 keys and values. */
#include <stdio.h>

#include "tiny.h"

enum { G4_QUALITY_LINES = 64 };
typedef struct {
    float *p;
    int n;
} g4_answers_row;

/* Log-probabilities of the token after each prompt; how many answers were right is counted in *right. */
static g4_status g4_measure(const char *model, g4_kv_choice kv, g4_answers_row rows[G4_QUALITY_LINES], int *n,
                            int *right, g4_error *err)
{
    g4_engine *e = NULL;
    FILE *f = fopen("tests/data/tiny.jsonl", "rb");
    if (f == NULL) return g4_fail(err, G4_ERR_IO, "tests/data/tiny.jsonl: cannot be read");
    g4_status st = g4_engine_open(&e, &(g4_engine_options) { .model_path = model }, err);
    char *ask = NULL, *want = NULL;
    size_t ask_cap = 0, want_cap = 0, len, want_len;
    *n = *right = 0;
    while (st == G4_OK && *n < G4_QUALITY_LINES && g4_tiny_line(f, &ask, &ask_cap, &len) &&
           g4_tiny_line(f, &want, &want_cap, &want_len)) {
        g4_session *s = NULL;
        g4_tiny_answer a = { 0 };
        g4_buf got = { 0 };
        st = g4_session_open(&s, e, &(g4_session_options) { .kv = kv }, err);
        if (st == G4_OK) st = g4_tiny_ask(s, e, ask, len, &a, err);
        if (st == G4_OK) {
            g4_json_quote(&got, a.text.data ? a.text.data : "", a.text.len);
            *right += got.len == want_len && memcmp(got.data, want, want_len) == 0;
            rows[*n].p = a.first;
            rows[*n].n = a.n_vocab;
            a.first = NULL;
            ++*n;
        }
        free(a.first);
        g4_buf_free(&got);
        g4_buf_free(&a.text);
        g4_session_close(s);
    }
    free(ask);
    free(want);
    fclose(f);
    g4_engine_close(e);
    return st;
}

int main(void)
{
    static const struct {
        const char *name, *path;
    } models[] = { { "q8_0", "models/tiny.g4" }, { "q4_0", "tests/data/tiny-q4_0.g4" } };
    static const struct {
        const char *name;
        g4_kv_choice kv;
    } kvs[] = { { "f32", G4_KV_USE_F32 }, { "f16", G4_KV_USE_F16 }, { "q8_0", G4_KV_USE_Q8_0 } };
    static g4_answers_row base[G4_QUALITY_LINES], rows[G4_QUALITY_LINES];
    int n_base = 0;
    g4_error err;
    printf("weights  keys, values  right    KL divergence of the first token, mean and largest (nats)\n");
    for (size_t m = 0; m < 2; m++) {
        for (size_t k = 0; k < 3; k++) {
            int n = 0, right = 0, first = m == 0 && k == 0;
            if (g4_measure(models[m].path, kvs[k].kv, first ? base : rows, &n, &right, &err) != G4_OK) {
                fprintf(stderr, "quality: %s\n", err.message);
                return 1;
            }
            if (first) n_base = n;
            double sum = 0, most = 0;
            for (int i = 0; !first && i < n && i < n_base; i++) {
                double kl = 0;
                for (int j = 0; j < base[i].n; j++)
                    kl += exp((double)base[i].p[j]) * ((double)base[i].p[j] - rows[i].p[j]);
                sum += kl;
                if (kl > most) most = kl;
                free(rows[i].p);
            }
            printf("%-8s %-13s %d of %d  %.2e  %.2e\n", models[m].name, kvs[k].name, right, n, n > 0 ? sum / n : 0,
                   most);
        }
    }
    for (int i = 0; i < n_base; i++) free(base[i].p);
    return 0;
}
