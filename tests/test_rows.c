/* test_rows.c - a forward pass holds rows of any number of timelines, and each row gets the bits it would get alone:
 * eight timelines with their next token each, in one product a matrix; and a piece of a prompt with a picture in it
 * beside the next tokens of three others. */
#include "engine/generate.h"

#include <stdio.h>
#include <stdlib.h>

#include "test.h"

enum { MANY = 8, PIECE = 40, OTHERS = 3, BLOCK_FIRST = 9, BLOCK_END = 30, N_CTX = 512 };

/* A kernel table that counts, in front of the one that computes. */
static const g4_kernels *g4_real;
typedef struct {
    const uint8_t *data; /* of the matrix */
    int groups, min_rows, max_rows;
} g4_count;
static g4_count g4_counts[4096];
static int g4_n_counts;

static void g4_note(const g4_matrix *w, int t0, int t1, int g0, int g1)
{
    int i = 0;
    while (i < g4_n_counts && g4_counts[i].data != w->data) i++;
    if (i == 4096) return;
    if (i == g4_n_counts) g4_counts[g4_n_counts++] = (g4_count) { w->data, 0, t1 - t0, t1 - t0 };
    g4_counts[i].groups += g1 - g0;
    g4_counts[i].min_rows = g4_min_int(g4_counts[i].min_rows, t1 - t0);
    g4_counts[i].max_rows = g4_max_int(g4_counts[i].max_rows, t1 - t0);
}

static void g4_gemm_counted(float *y, size_t stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0,
                            int g1)
{
    g4_note(w, t0, t1, g0, g1);
    g4_real->gemm[w->type](y, stride, w, x, t0, t1, g0, g1);
}

/* Every output of w was computed once, for all `rows` at a time. */
static void g4_expect_once(const g4_matrix *w, int rows, const char *what, int layer)
{
    if (!w->data) return;
    for (int i = 0; i < g4_n_counts; i++) {
        if (g4_counts[i].data != w->data) continue;
        G4_EXPECT(g4_counts[i].groups == w->groups && g4_counts[i].min_rows == rows && g4_counts[i].max_rows == rows,
                  "%s of layer %d: %d of %d groups for %d to %d rows", what, layer, g4_counts[i].groups, w->groups,
                  g4_counts[i].min_rows, g4_counts[i].max_rows);
        return;
    }
    G4_EXPECT(0, "%s of layer %d was not multiplied", what, layer);
}

static void g4_expect_products(const g4_model *m, int rows)
{
    for (int l = 0; l < (int)m->config->n_layers; l++) {
        const g4_layer *w = &m->layers[l];
        g4_expect_once(&w->q, rows, "q", l);
        g4_expect_once(&w->k, rows, "k", l);
        g4_expect_once(&w->v, rows, "v", l);
        g4_expect_once(&w->o, rows, "o", l);
        g4_expect_once(&w->gate_up, rows, "gate_up", l);
        g4_expect_once(&w->down, rows, "down", l);
        g4_expect_once(&w->ple_gate, rows, "ple_gate", l);
        g4_expect_once(&w->ple_proj, rows, "ple_proj", l);
        g4_expect_once(&w->router, rows, "router", l);
    }
    g4_expect_once(&m->ple_proj, rows, "ple_proj", -1);
    g4_expect_once(&m->head, rows, "head", -1);
}

static g4_token g4_some_token(const g4_engine *e, int seed, int i)
{
    return (g4_token)((seed * 131 + i * 37 + i * i * 5 + 11) % (int)e->file.config.n_vocab);
}

/* A session with n tokens evaluated. */
static g4_session *g4_start(g4_engine *e, g4_kv_choice kv, int seed, int n)
{
    g4_session *s = NULL;
    g4_error err;
    const int n_ctx = g4_min_int(N_CTX, (int)e->file.config.max_ctx);
    const g4_session_options opt = { .n_ctx = n_ctx, .kv = kv, .chunk = 64 };
    g4_token *tokens = malloc((size_t)n * sizeof *tokens);
    for (int i = 0; tokens && i < n; i++) tokens[i] = g4_some_token(e, seed, i);
    const int ok =
        tokens && g4_session_open(&s, e, &opt, &err) == G4_OK && g4_session_eval(s, tokens, n, &err) == G4_OK;
    G4_EXPECT(ok, "%s", err.message);
    free(tokens);
    return s;
}

static g4_session *g4_fork_of(const g4_session *s)
{
    g4_session *copy = NULL;
    g4_error err;
    G4_EXPECT(g4_session_fork(&copy, s, &err) == G4_OK, "%s", err.message);
    return copy;
}

/* The next position of s as a row. */
static g4_row g4_next_row(g4_session *s, g4_token token)
{
    G4_EXPECT(g4_kv_reserve(&s->kv, s->n, 1), "no memory");
    return (g4_row) { .kv = &s->kv, .pos = s->n, .token = token, .last_visible = s->n, .wants_logits = 1 };
}

/* Softcapped logits of rows of the last pass that wanted them, into (n, n_vocab rounded up). */
static float *g4_logits_of(g4_engine *e, const int *rows, int n)
{
    const size_t stride = g4_round_up(e->file.config.n_vocab, 16);
    float *logits = calloc((size_t)n * stride, sizeof *logits);
    const float *states[G4_HEAD_ROWS];
    for (int i = 0; i < n; i++) states[i] = g4_final_state(&e->model, rows[i]);
    if (logits) g4_head(&e->model, states, n, logits, stride);
    return logits;
}

static void g4_expect_same(const g4_engine *e, const float *logits, int row, const float *want, const char *what)
{
    const size_t n = e->file.config.n_vocab, stride = g4_round_up(n, 16);
    G4_EXPECT(logits && want && memcmp(logits + (size_t)row * stride, want, n * sizeof *want) == 0, "%s, row %d", what,
              row);
}

/* What s alone says behind one more token. */
static void g4_expect_alone(g4_session *s, g4_token token, const float *logits, int row, const char *what)
{
    g4_error err = { G4_OK, "" };
    G4_EXPECT(g4_session_eval(s, &token, 1, &err) == G4_OK, "%s", err.message);
    g4_expect_same(s->e, logits, row, g4_session_logits(s), what);
}

static void g4_test_many(g4_engine *e, g4_kv_choice kv, const char *what)
{
    static const int lengths[MANY] = { 3, 64, 65, 1, 130, 200, 257, 300 }; /* within and far behind the window */
    g4_session *s[MANY], *alone[MANY];
    g4_row rows[MANY];
    int all[MANY];
    for (int i = 0; i < MANY; i++) {
        s[i] = g4_start(e, kv, i, g4_min_int(lengths[i], (int)e->file.config.max_ctx - 2));
        alone[i] = g4_fork_of(s[i]);
        rows[i] = g4_next_row(s[i], g4_some_token(e, i, 1000));
        all[i] = i;
    }
    g4_kernels counting = *e->compute.kernels;
    g4_real = e->compute.kernels;
    g4_n_counts = 0;
    for (int t = 0; t < G4_N_TYPES; t++) counting.gemm[t] = g4_gemm_counted;
    if (g4_pool_size(e->compute.pool) == 1) e->compute.kernels = &counting; /* counters are of one thread */
    g4_forward(&e->model, rows, MANY, NULL);
    float *logits = g4_logits_of(e, all, MANY);
    if (e->compute.kernels == &counting) g4_expect_products(&e->model, MANY);
    e->compute.kernels = g4_real;
    for (int i = 0; i < MANY; i++) {
        g4_expect_alone(alone[i], rows[i].token, logits, i, what);
        g4_session_close(s[i]);
        g4_session_close(alone[i]);
    }
    free(logits);
}

/* The next PIECE positions of s, with a block of soft tokens in them whose rows see each other both ways. */
static void g4_piece_rows(g4_session *s, const float *soft, g4_row *rows)
{
    const size_t hidden = s->e->file.config.hidden;
    G4_EXPECT(g4_kv_reserve(&s->kv, s->n, PIECE), "no memory");
    for (int i = 0; i < PIECE; i++) {
        const int in_block = i >= BLOCK_FIRST && i < BLOCK_END;
        rows[i] = (g4_row) { .kv = &s->kv,
                             .pos = s->n + i,
                             .token = g4_some_token(s->e, 77, i),
                             .soft = in_block ? soft + (size_t)i * hidden : NULL,
                             .last_visible = s->n + (in_block ? BLOCK_END - 1 : i),
                             .wants_logits = i == PIECE - 1 };
    }
}

static void g4_test_mixed(g4_engine *e, g4_kv_choice kv, const char *what)
{
    static const int lengths[OTHERS] = { 70, 5, 140 };
    const size_t hidden = e->file.config.hidden;
    float *soft = malloc(PIECE * hidden * sizeof *soft);
    for (size_t i = 0; soft && i < PIECE * hidden; i++)
        soft[i] = (float)((int)(i * 2654435761u >> 20 & 255) - 128) / 64;
    g4_session *prompt = g4_start(e, kv, 50, 33), *prompt_alone = g4_fork_of(prompt), *s[OTHERS], *alone[OTHERS];
    g4_row rows[PIECE + OTHERS], piece[PIECE];
    int place[1 + OTHERS], n = 0;
    g4_piece_rows(prompt, soft, piece);
    for (int i = 0; i < OTHERS; i++) { /* between the prompt's rows */
        s[i] = g4_start(e, kv, i, lengths[i]);
        alone[i] = g4_fork_of(s[i]);
        for (int k = 0; k < PIECE / OTHERS; k++) rows[n + k] = piece[i * (PIECE / OTHERS) + k];
        n += PIECE / OTHERS;
        place[1 + i] = n;
        rows[n++] = g4_next_row(s[i], g4_some_token(e, i, 500));
    }
    for (int k = OTHERS * (PIECE / OTHERS); k < PIECE; k++) rows[n++] = piece[k];
    place[0] = n - 1;
    g4_forward(&e->model, rows, n, NULL);
    float *logits = g4_logits_of(e, place, 1 + OTHERS);
    for (int i = 0; i < OTHERS; i++) {
        g4_expect_alone(alone[i], rows[place[1 + i]].token, logits, 1 + i, what);
        g4_session_close(s[i]);
        g4_session_close(alone[i]);
    }
    /* the prompt's piece alone, and then a token behind it, which reads what the pieces left in the caches */
    g4_piece_rows(prompt_alone, soft, piece);
    g4_forward(&e->model, piece, PIECE, NULL);
    float *want = g4_logits_of(e, &(int) { PIECE - 1 }, 1);
    g4_expect_same(e, logits, 0, want, what);
    prompt->n += PIECE;
    prompt_alone->n += PIECE;
    const g4_token next = g4_some_token(e, 9, 9);
    g4_error err = { G4_OK, "" };
    const int ok =
        g4_session_eval(prompt, &next, 1, &err) == G4_OK && g4_session_eval(prompt_alone, &next, 1, &err) == G4_OK;
    G4_EXPECT(ok && memcmp(g4_session_logits(prompt), g4_session_logits(prompt_alone),
                           e->file.config.n_vocab * sizeof(float)) == 0,
              "%s: behind the piece: %s", what, err.message);
    g4_session_close(prompt);
    g4_session_close(prompt_alone);
    free(logits);
    free(want);
    free(soft);
}

int main(void)
{
    static const char *const models[] = { "e2b", "e2b.q4_0", "e2b.q8_0", "e2b.bf16", "e4b",
                                          "26b", "26b.q4_0", "31b",      "gemma3" };
    static const g4_kv_choice kinds[] = { G4_KV_USE_F16, G4_KV_USE_F32, G4_KV_USE_Q8_0 };
    for (size_t m = 0; m < sizeof models / sizeof *models; m++)
        for (int isa = 0; g4_isa_name(isa); isa++)
            for (int threads = 1; threads <= 2; threads++) {
                char path[64], what[96];
                g4_engine *e;
                g4_error err;
                snprintf(path, sizeof path, "tests/data/text_%s.g4", models[m]);
                const g4_engine_options opt = { .model_path = path, .n_threads = threads, .isa = g4_isa_name(isa) };
                if (g4_engine_open(&e, &opt, &err)) {
                    G4_EXPECT(0, "%s", err.message);
                    continue;
                }
                for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
                    snprintf(what, sizeof what, "%s, %s, %d threads, kv %d", models[m], g4_isa_name(isa), threads,
                             (int)kinds[k]);
                    g4_test_many(e, kinds[k], what);
                    g4_test_mixed(e, kinds[k], what);
                }
                g4_engine_close(e);
            }
    return g4_test_end();
}
