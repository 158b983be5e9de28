/* products - what the matrices of a model file make of inputs, one product of the engine each.
 *
 *     products MODEL static|dynamic LAYER NAME N < inputs > outputs
 *
 * Inputs (N, columns) and outputs (N, rows) are float32. NAME is a field of the layer's tensors, or head or ple.proj;
 * gate_up gives gelu(gate x) * (up x). Ends with status 1 and a line where something is wrong. */
#include "engine/session.h"

#include <stdio.h>
#include <stdlib.h>

#define G4_FAIL(...) return fprintf(stderr, "products: " __VA_ARGS__), fputc('\n', stderr), 1

static const g4_matrix *g4_named(const g4_model *m, int layer, const char *name)
{
    const g4_layer *w = &m->layers[layer];
    const struct {
        const char *name;
        const g4_matrix *of;
    } all[] = { { "q", &w->q },
                { "k", &w->k },
                { "v", &w->v },
                { "o", &w->o },
                { "down", &w->down },
                { "gate_up", &w->gate_up },
                { "head", &m->head },
                { "ple_gate", &w->ple_gate },
                { "ple_proj", &w->ple_proj },
                { "ple.proj", &m->ple_proj } };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (strcmp(all[i].name, name) == 0) return all[i].of;
    return NULL;
}

int main(int argc, char **argv)
{
    g4_engine *e = NULL;
    g4_error err;
    if (argc != 6) G4_FAIL("MODEL static|dynamic LAYER NAME N");
    const g4_engine_options opt = { .model_path = argv[1], .static_activations = strcmp(argv[2], "static") == 0 };
    if (g4_engine_open(&e, &opt, &err)) G4_FAIL("%s", err.message);
    const int layer = atoi(argv[3]), n = atoi(argv[5]), is_gate_up = strcmp(argv[4], "gate_up") == 0;
    const g4_matrix *w =
        layer >= 0 && layer < (int)e->model.config->n_layers ? g4_named(&e->model, layer, argv[4]) : NULL;
    if (!w || !w->data || n < 1 || n > g4_model_max_rows(&e->model)) G4_FAIL("no %s in layer %d", argv[4], layer);
    g4_blocks blocks = { 0 };
    const int rows = is_gate_up ? (int)e->model.layers[layer].cfg.mlp_dim : w->rows;
    const g4_acts x = g4_acts_open(&blocks, (size_t)n, w->cols, 1), y = g4_acts_open(&blocks, (size_t)n, rows, 1);
    if (blocks.failed) G4_FAIL("no memory");
    for (int i = 0; i < n; i++) {
        if (fread(g4_acts_row(&x, i), sizeof(float), (size_t)w->cols, stdin) != (size_t)w->cols) G4_FAIL("inputs end");
        g4_acts_ready(&e->compute, &x, i, w->cols);
    }
    const g4_product product = { .w = w, .y = y.x, .stride = y.x_stride, .first = 0, .end = n };
    const g4_stack stack = { .first = *w };
    const g4_share all = { 0, 0, n };
    if (is_gate_up)
        g4_matmul_geglu(&e->compute, &y, &stack, &x, &all, 1);
    else
        g4_matmul(&e->compute, &product, 1, &x);
    for (int i = 0; i < n; i++) fwrite(g4_acts_row(&y, i), sizeof(float), (size_t)rows, stdout);
    g4_blocks_free(&blocks);
    g4_engine_close(e);
    return 0;
}
