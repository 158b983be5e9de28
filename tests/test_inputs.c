/* test_inputs.c - what g4_taps.inputs is shown is what each matrix is multiplied with: for every tensor and expert, the
 * sums of squares of each column equal those made of the activations that taps name, which test_taps.c holds against
 * transformers; what experts hand to their second matrix is computed once more here, in plain float loops. */
#include "engine/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "test.h"

enum { N_TOKENS = 24, MAX_WIDTH = 4096 };

typedef struct { /* of one matrix */
    char name[64];
    int matrix, n_cols, n_rows;
    double *sums; /* (n_cols) */
} g4_column_sums;

typedef struct {
    g4_column_sums all[2048];
    int n;
} g4_sums;

typedef struct {
    g4_sums shown, wanted;
    const g4_engine *e;
    int n_calls, is_wrong_shape;
    int32_t ids[N_TOKENS * 16];        /* (tokens, used): the experts of the layer */
    float stream[N_TOKENS][MAX_WIDTH]; /* the residual stream */
    float hidden[MAX_WIDTH];
} g4_both;

static void g4_add_rows(g4_sums *s, const char *name, int matrix, const float *x, int n_rows, int n_cols, size_t stride)
{
    int i = 0;
    while (i < s->n && (strcmp(s->all[i].name, name) != 0 || s->all[i].matrix != matrix)) i++;
    g4_column_sums *c = &s->all[i];
    if (i == s->n) {
        s->n++;
        *c = (g4_column_sums) { .matrix = matrix, .n_cols = n_cols, .sums = calloc((size_t)n_cols, sizeof *c->sums) };
        snprintf(c->name, sizeof c->name, "%s", name);
    }
    for (int r = 0; r < n_rows; r++)
        for (int k = 0; k < n_cols; k++) {
            const double v = (double)x[(size_t)r * stride + (size_t)k];
            c->sums[k] += v * v;
        }
    c->n_rows += n_rows;
}

static void g4_see_inputs(void *user, const g4_inputs *in)
{
    g4_both *b = user;
    b->n_calls++;
    if (in->n_rows < 1 || in->n_cols < 1 || in->stride < (size_t)in->n_cols) b->is_wrong_shape = 1;
    g4_add_rows(&b->shown, in->name, in->matrix, in->values, in->n_rows, in->n_cols, in->stride);
}

/* Has the model a tensor of that name? */
static int g4_has(const g4_engine *e, const char *name)
{
    g4_tensor_info t;
    for (int i = 0; g4_engine_get_tensor(e, i, &t); i++)
        if (strcmp(t.name, name) == 0) return 1;
    return 0;
}

static void g4_want(g4_both *b, const g4_tap *tap, const char *field, const float *x, size_t stride, int matrix)
{
    char name[64];
    if (tap->layer < 0)
        snprintf(name, sizeof name, "%s", field);
    else
        snprintf(name, sizeof name, "l.%d.%s", tap->layer, field);
    if (g4_has(b->e, name)) g4_add_rows(&b->wanted, name, matrix, x, tap->n_rows, tap->n_cols, stride);
}

static float g4_dot_row(const g4_matrix *m, int row, const float *x)
{
    float w[MAX_WIDTH], sum = 0;
    g4_matrix_row(w, m, row);
    for (int i = 0; i < m->cols; i++) sum += w[i] * x[i];
    return sum;
}

/* gelu(gate x) * (up x) of an expert, whose gate and up stand in alternating groups of 16 rows. */
static void g4_want_expert(g4_both *b, const g4_tap *tap, int id)
{
    const g4_layer *l = &b->e->model.layers[tap->layer];
    const int dim = (int)b->e->file.config.expert_dim;
    g4_matrix m = l->experts_gate_up.first;
    m.data += (size_t)id * l->experts_gate_up.bytes;
    for (int i = 0; i < dim; i++) {
        const int gate_row = i / 16 * 32 + i % 16;
        const float gate = g4_dot_row(&m, gate_row, tap->values);
        const float gelu = 0.5f * gate * (1 + tanhf(0.7978845608f * (gate + 0.044715f * gate * gate * gate)));
        b->hidden[i] = gelu * g4_dot_row(&m, gate_row + 16, tap->values);
    }
    char name[64];
    snprintf(name, sizeof name, "l.%d.experts.down", tap->layer);
    g4_add_rows(&b->wanted, name, id, b->hidden, 1, dim, (size_t)dim);
}

static void g4_follow_stream(g4_both *b, const g4_tap *tap, int adds)
{
    for (int r = 0; r < tap->n_rows; r++)
        for (int i = 0; i < tap->n_cols; i++) {
            float *x = &b->stream[tap->pos + r][i];
            *x = (adds ? *x : 0) + tap->values[(size_t)r * tap->stride + (size_t)i];
        }
}

static void g4_see_tap(void *user, const g4_tap *tap)
{
    static const char *const reads[][2] = {
        { "attn_norm", "q" },      { "attn_norm", "k" },     { "attn_norm", "v" },        { "attn_heads", "o" },
        { "mlp_norm", "gate_up" }, { "mlp_hidden", "down" }, { "router_norm", "router" }, { "ple_hidden", "ple_proj" },
    };
    g4_both *b = user;
    const int used = (int)b->e->file.config.n_experts_used;
    for (size_t i = 0; i < sizeof reads / sizeof *reads; i++)
        if (strcmp(tap->name, reads[i][0]) == 0) g4_want(b, tap, reads[i][1], tap->values, tap->stride, 0);
    if (strcmp(tap->name, "embed") == 0) {
        g4_want(b, tap, "ple.proj", tap->values, tap->stride, 0);
        g4_follow_stream(b, tap, 0);
    }
    if (strcmp(tap->name, "layer_out") == 0) g4_follow_stream(b, tap, 0);
    if (strcmp(tap->name, "attn_post_norm") == 0) g4_follow_stream(b, tap, 1);
    if (strcmp(tap->name, "mlp_post_norm") == 0) {
        g4_follow_stream(b, tap, 1);
        g4_want(b, tap, "ple_gate", b->stream[tap->pos], MAX_WIDTH, 0);
    }
    if (strcmp(tap->name, "norm") == 0)
        g4_want(b, tap, b->e->file.config.flags & G4_CONFIG_TIED ? "embed" : "head", tap->values, tap->stride, 0);
    if (strcmp(tap->name, "router_ids") == 0)
        memcpy(b->ids, tap->ids, (size_t)(tap->n_rows * tap->n_cols) * sizeof *b->ids);
    for (int k = 0; strcmp(tap->name, "moe_norm") == 0 && k < used; k++) {
        const int id = b->ids[tap->pos * used + k];
        g4_want(b, tap, "experts.gate_up", tap->values, tap->stride, id);
        if (b->e->is_f32) g4_want_expert(b, tap, id);
    }
}

static int g4_is_multiplied(const g4_engine *e, const char *name)
{
    g4_tensor_info t;
    for (int i = 0; g4_engine_get_tensor(e, i, &t); i++)
        if (strcmp(t.name, name) == 0) return strcmp(t.layout, "groups16") == 0;
    return 0;
}

static void g4_compare(const char *path, const g4_both *b)
{
    for (int i = 0; i < b->wanted.n; i++) {
        const g4_column_sums *want = &b->wanted.all[i], *got = b->shown.all;
        while (got < b->shown.all + b->shown.n && (strcmp(got->name, want->name) != 0 || got->matrix != want->matrix))
            got++;
        const int found = got < b->shown.all + b->shown.n;
        const int is_made_here = strstr(want->name, "experts.down") != NULL;
        double largest = 0, off = 0;
        for (int k = 0; found && k < want->n_cols; k++) {
            if (want->sums[k] > largest) largest = want->sums[k];
            if (fabs(want->sums[k] - got->sums[k]) > off) off = fabs(want->sums[k] - got->sums[k]);
        }
        G4_EXPECT(found && got->n_cols == want->n_cols && got->n_rows == want->n_rows &&
                      off <= (is_made_here ? 1e-4 : 1e-12) * largest,
                  "%s: %s, matrix %d: off by %g of %g", path, want->name, want->matrix, off, largest);
    }
    for (int i = 0; i < b->shown.n; i++) {
        int known = strstr(b->shown.all[i].name, "experts.down") != NULL && !b->e->is_f32;
        for (int k = 0; k < b->wanted.n; k++) known |= strcmp(b->wanted.all[k].name, b->shown.all[i].name) == 0;
        G4_EXPECT(known && g4_is_multiplied(b->e, b->shown.all[i].name), "%s: %s was shown", path,
                  b->shown.all[i].name);
    }
}

static void g4_sums_free(g4_sums *s)
{
    for (int i = 0; i < s->n; i++) free(s->all[i].sums);
}

static void g4_test_model(const char *path)
{
    static g4_both both; /* large */
    g4_error err;
    g4_engine *e = NULL;
    g4_session *s = NULL;
    memset(&both, 0, sizeof both);
    const g4_taps all = { .fn = g4_see_tap, .user = &both, .inputs = g4_see_inputs };
    g4_token ids[N_TOKENS];
    g4_status st = g4_engine_open(&e, &(g4_engine_options) { .model_path = path, .n_threads = 2 }, &err);
    if (!st) st = g4_session_open(&s, e, &(g4_session_options) { .taps = &all }, &err);
    both.e = e;
    for (int i = 0; i < N_TOKENS; i++) ids[i] = (g4_token)(3 + 7 * i % 200);
    if (!st) st = g4_session_eval(s, ids, N_TOKENS, &err);
    G4_EXPECT(st == G4_OK && !both.is_wrong_shape, "%s: %s", path, st ? err.message : "a shape");
    if (!st) g4_compare(path, &both);
    const int n_calls = both.n_calls;
    g4_session_close(s);
    s = NULL;

    /* Who asks for inputs alone sees the same, and the logits that follow are not theirs. */
    g4_sums_free(&both.wanted);
    both.wanted = both.shown;
    memset(&both.shown, 0, sizeof both.shown);
    both.n_calls = 0;
    const g4_taps inputs = { .user = &both, .inputs = g4_see_inputs };
    if (!st) st = g4_session_open(&s, e, &(g4_session_options) { .taps = &inputs }, &err);
    if (!st) st = g4_session_eval(s, ids, N_TOKENS, &err);
    G4_EXPECT(!st && both.n_calls == n_calls, "%s: %d calls, expected %d", path, both.n_calls, n_calls);
    if (!st) g4_compare(path, &both);
    G4_EXPECT(!st && g4_session_logits(s) && both.n_calls == n_calls, "%s: logits", path);
    g4_session_close(s);
    g4_sums_free(&both.wanted);
    g4_sums_free(&both.shown);
    g4_engine_close(e);
}

int main(void)
{
    static const char *const models[] = { "e2b", "e4b", "26b", "31b", "gemma3", "e2b.q4_0", "26b.mixed", "26b.q8_0" };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        char path[64];
        snprintf(path, sizeof path, "tests/data/text_%s.g4", models[i]);
        g4_test_model(path);
    }
    return g4_test_end();
}
