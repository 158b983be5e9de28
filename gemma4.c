/* gemma4.c - the model, to be read from top to bottom beside MODEL.md: how rows of tokens become keys, values, states
 * and logits. It calls threads, products and caches and implements none of them; it knows neither engines nor sessions.
 *
 *   1  Configuration, weights by name, buffers   6  Per-layer inputs
 *   2  Norms and RoPE                            7  The layer
 *   3  Attention                                 8  The decoder, and what a prompt skips
 *   4  Feed-forward                              9  The head
 *   5  Experts
 *
 * MODEL.md shows the layer first; C needs its parts first. Everything is float32 between the products. What is done for
 * every row has one form, a function of the task and the row's number, and runs on all threads; where two share a row's
 * data they are one function, so that the row stays in cache. A row's values do not depend on the rows beside it.
 * examples/simple.c is the same decoder for one token at a time, without threads and vectors. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "engine/model.h"

/* ---- 1. Configuration, weights by name, buffers ---------------------------------------------------------
 *
 * In: the checked model file. Out: structs whose fields have the reference's meanings. Tensor names are looked up here
 * once; after that no code sees a string. parts.h lists the names with their shapes. */

/* Which layers own keys and values, and which owner's cache each layer reads (num_kv_shared_layers: the last layers of
 * E2B and E4B read the last owner of their own type). */
static void g4_bind_owners(g4_model *m)
{
    for (int l = 0; l < (int)m->config->n_layers; l++) {
        g4_layer *w = &m->layers[l];
        w->is_owner = w->cfg.kv_source == (uint32_t)l;
        if (!w->is_owner) {
            w->cache = m->layers[w->cfg.kv_source].cache;
            continue;
        }
        const int window = w->cfg.flags & G4_LAYER_FULL ? 0 : (int)m->config->window;
        m->kv_shapes[m->n_owners] = (g4_kv_shape) { window, (int)w->cfg.n_kv_heads, (int)w->cfg.head_dim };
        w->cache = m->n_owners++;
        m->last_owner = l;
    }
}

static void g4_bind_layer(g4_binder *b, g4_layer *w, const g4_config *c, int l)
{
    const g4_layer_config *lc = &w->cfg;
    const uint64_t hidden = c->hidden, dim = lc->head_dim, q = c->n_heads * dim, kv = lc->n_kv_heads * dim;
    w->attn_norm = g4_bind_vector(b, "l", l, "attn_norm", hidden);
    w->attn_post_norm = g4_bind_vector(b, "l", l, "attn_post_norm", hidden);
    w->mlp_norm = g4_bind_vector(b, "l", l, "mlp_norm", hidden);
    w->mlp_post_norm = g4_bind_vector(b, "l", l, "mlp_post_norm", hidden);
    w->q_norm = g4_bind_vector(b, "l", l, "q_norm", dim);
    w->q = g4_bind_matrix(b, "l", l, "q", q, hidden);
    w->o = g4_bind_matrix(b, "l", l, "o", hidden, q);
    if (w->is_owner) {
        w->k_norm = g4_bind_vector(b, "l", l, "k_norm", dim);
        w->k = g4_bind_matrix(b, "l", l, "k", kv, hidden);
        if (!(lc->flags & G4_LAYER_K_EQ_V)) w->v = g4_bind_matrix(b, "l", l, "v", kv, hidden);
    }
    w->gate_up = g4_bind_matrix(b, "l", l, "gate_up", 2 * g4_round_up(lc->mlp_dim, 16), hidden);
    w->down = g4_bind_matrix(b, "l", l, "down", hidden, lc->mlp_dim);
    const float *scalar = lc->flags & G4_LAYER_SCALAR ? g4_bind_vector(b, "l", l, "scalar", 1) : NULL;
    w->scalar = scalar ? *scalar : 1.0f;
    if (c->ple_dim) {
        w->ple_gate = g4_bind_matrix(b, "l", l, "ple_gate", c->ple_dim, hidden);
        w->ple_proj = g4_bind_matrix(b, "l", l, "ple_proj", hidden, c->ple_dim);
        w->ple_norm = g4_bind_vector(b, "l", l, "ple_norm", hidden);
    }
    if (lc->flags & G4_LAYER_MOE) {
        const uint64_t n = c->n_experts;
        w->router = g4_bind_matrix(b, "l", l, "router", n, hidden);
        w->router_scale = g4_bind_vector(b, "l", l, "router_scale", hidden);
        w->expert_scale = g4_bind_vector(b, "l", l, "expert_scale", n);
        w->moe_norm = g4_bind_vector(b, "l", l, "moe_norm", hidden);
        w->mlp_post_norm1 = g4_bind_vector(b, "l", l, "mlp_post_norm1", hidden);
        w->mlp_post_norm2 = g4_bind_vector(b, "l", l, "mlp_post_norm2", hidden);
        w->experts_gate_up = g4_bind_stack(b, "l", l, "experts.gate_up", n, 2 * g4_round_up(c->expert_dim, 16), hidden);
        w->experts_down = g4_bind_stack(b, "l", l, "experts.down", n, hidden, c->expert_dim);
    }
}

/* Static scales of activations, in the order in which l.N.act has them; gate and up are one matrix. */
static void g4_bind_layer_acts(g4_binder *b, g4_layer *w, int l)
{
    g4_matrix *const of[] = { &w->q, &w->k, &w->v, &w->o, &w->gate_up, NULL, &w->down, &w->ple_gate, &w->ple_proj };
    const float *act = g4_bind_act(b, "l", l, sizeof of / sizeof *of);
    for (size_t i = 0; act && i < sizeof of / sizeof *of; i++)
        if (of[i]) of[i]->act = act + 2 * i;
}

/* RoPE frequencies of sliding (0) and full layers (1), whose head dimension all layers of a kind share. */
static void g4_bind_rope(g4_binder *b, g4_model *m, int full)
{
    const uint32_t n = m->config->n_layers;
    uint32_t l = 0;
    while (l < n && ((m->layers[l].cfg.flags & G4_LAYER_FULL) != 0) != full) l++;
    if (l == n) return;
    const uint32_t half = m->layers[l].cfg.head_dim / 2;
    m->rope[full] = g4_bind_vector(b, full ? "rope.full" : "rope.sliding", -1, "", half);
    m->rope_half[full] = (int)half;
}

void g4_model_bind(g4_model *m, g4_binder *b, const g4_compute *compute, const g4_allocator *a)
{
    const g4_config *c = &b->file->config;
    const uint64_t hidden = c->hidden, n_vocab = c->n_vocab, ple = (uint64_t)c->n_layers * c->ple_dim;
    *m = (g4_model) { .config = c, .compute = compute, .a = a };
    m->layers = g4_alloc(a, c->n_layers, sizeof *m->layers);
    m->kv_shapes = g4_alloc(a, c->n_layers, sizeof *m->kv_shapes);
    if (!m->layers || !m->kv_shapes) {
        b->status = g4_fail(b->err, G4_ERR_MEMORY, "no memory for %u layers", c->n_layers);
        return;
    }
    for (uint32_t l = 0; l < c->n_layers; l++) {
        m->layers[l].cfg = b->file->layers[l];
        m->max_head_dim = g4_max_int(m->max_head_dim, (int)m->layers[l].cfg.head_dim);
    }
    g4_bind_owners(m);
    if (c->flags & G4_CONFIG_TIED) {
        m->head = g4_bind_matrix(b, "embed", -1, "", n_vocab, hidden);
    } else {
        m->embed = g4_bind_table(b, "embed", -1, "", n_vocab, hidden);
        m->head = g4_bind_matrix(b, "head", -1, "", n_vocab, hidden);
    }
    m->norm = g4_bind_vector(b, "norm", -1, "", hidden);
    g4_bind_rope(b, m, 0);
    g4_bind_rope(b, m, 1);
    if (c->ple_dim) {
        m->ple_embed = g4_bind_table(b, "ple.embed", -1, "", n_vocab, ple);
        m->ple_proj = g4_bind_matrix(b, "ple.proj", -1, "", ple, hidden);
        m->ple_norm = g4_bind_vector(b, "ple.norm", -1, "", c->ple_dim);
    }
    const float *act = g4_bind_act(b, "", -1, 2);
    if (act) m->head.act = act, m->ple_proj.act = act + 2;
    for (int l = 0; l < (int)c->n_layers; l++) {
        g4_bind_layer(b, &m->layers[l], c, l);
        g4_bind_layer_acts(b, &m->layers[l], l);
    }
}

/* ---- The buffers of a pass -----------------------------------------------------------------------------
 *
 * A pass: rows on their way through the layers. Buffers are made once, for the largest pass; only what is used becomes
 * resident. Rows are stored as (rows, columns), columns padded to 64 with zeros. */

#define G4_PASS_ROWS 512          /* rows of one pass at most ... */
#define G4_PASS_ROWS_PICTURE 1120 /* ... or the largest picture, where its tokens see each other */

struct g4_pass {
    g4_model *model;
    g4_blocks blocks;      /* all buffers below */
    int max_rows;          /* of all buffers */
    int n;                 /* rows of this pass */
    int first;             /* rows before this one have gone as far as anybody reads */
    int first_wanted;      /* rows from this one on want logits */
    const g4_layer *layer; /* where the rows are; NULL: in none */
    const g4_taps *taps;   /* who sees what is computed; NULL: nobody */
    g4_row *rows;          /* (n): first those that want no logits, then the others */
    int *place;            /* (n): which of `rows` the caller's row i became */

    float *x;         /* (rows, hidden): the residual stream */
    g4_acts normed;   /* (rows, hidden): what the projections read */
    float *q, *k, *v; /* (rows, q_cols), (rows, kv_cols) */
    int q_cols, kv_cols;
    float *cos[2], *sin[2]; /* (rows, rope_cols): angles of sliding and full layers */
    int rope_cols;
    g4_query *queries; /* (rows): what each asks of the keys and values it sees, */
    g4_unit *units;    /* (rows) and which do so together */
    g4_acts inner;     /* (rows, widest): what is inside a branch, one after the other: attention output, MLP, gates */
    float *out;        /* (rows, hidden): what a branch adds to the stream */
    float *ple_inputs; /* (rows, ple_cols): per-layer inputs */
    int ple_cols;
    /* experts */
    float *route;          /* (rows, pad16(n_experts)) */
    int *expert;           /* (rows, used): chosen experts by ascending id, */
    float *gain;           /* (rows, used) their weights, */
    int *gathered_row;     /* (rows, used) and their rows in the three buffers below */
    g4_acts gathered;      /* (rows * used, hidden): inputs, expert by expert */
    g4_acts expert_hidden; /* (rows * used, expert_dim) */
    float *expert_out;     /* (rows * used, hidden) */
    g4_share *shares;      /* (n_experts): experts that have rows */
    float *dense;          /* (rows, hidden): output of the dense MLP beside the experts */
};

int g4_model_max_rows(const g4_model *m) { return m->pass->max_rows; }
int g4_model_max_cols(const g4_model *m) { return (int)m->pass->inner.x_stride; }

static void g4_pass_open_experts(g4_pass *p, const g4_config *c, int reads_ints)
{
    const size_t rows = (size_t)p->max_rows, used = c->n_experts_used;
    g4_blocks *b = &p->blocks;
    p->route = g4_blocks_add(b, rows, g4_round_up(c->n_experts, 16), sizeof *p->route);
    p->expert = g4_blocks_add(b, rows, used, sizeof *p->expert);
    p->gain = g4_blocks_add(b, rows, used, sizeof *p->gain);
    p->gathered_row = g4_blocks_add(b, rows, used, sizeof *p->gathered_row);
    p->gathered = g4_acts_open(b, rows * used, (int)c->hidden, reads_ints);
    p->expert_hidden = g4_acts_open(b, rows * used, (int)c->expert_dim, reads_ints);
    p->expert_out = g4_blocks_add(b, rows * used, p->normed.x_stride, sizeof *p->expert_out);
    p->shares = g4_blocks_add(b, c->n_experts, 1, sizeof *p->shares);
    p->dense = g4_blocks_add(b, rows, p->normed.x_stride, sizeof *p->dense);
}

g4_status g4_model_open(g4_model *m, g4_error *err)
{
    const g4_config *c = m->config;
    const int dim = m->max_head_dim, reads_ints = m->compute->reads_ints;
    g4_pass *p = m->pass = g4_alloc(m->a, 1, sizeof *p);
    if (!p) return g4_fail(err, G4_ERR_MEMORY, "no memory for a forward pass");
    p->model = m;
    p->blocks.a = m->a;
    int widest = g4_max_int((int)c->hidden, g4_max_int((int)c->n_heads * dim, (int)c->ple_dim)), kv = 0;
    for (uint32_t l = 0; l < c->n_layers; l++) {
        widest = g4_max_int(widest, (int)m->layers[l].cfg.mlp_dim);
        kv = g4_max_int(kv, (int)(m->layers[l].cfg.n_kv_heads * m->layers[l].cfg.head_dim));
    }
    const int two_way = (c->flags & G4_CONFIG_IMAGE_BIDIR) && c->v_layers; /* such a block is evaluated in one pass */
    p->max_rows = two_way ? G4_PASS_ROWS_PICTURE : G4_PASS_ROWS;
    p->q_cols = (int)g4_round_up(c->n_heads * (size_t)dim, 16);
    p->kv_cols = (int)g4_round_up((size_t)kv, 16);
    p->ple_cols = (int)g4_round_up((size_t)c->n_layers * c->ple_dim, 16);
    p->rope_cols = dim / 2;

    const size_t rows = (size_t)p->max_rows;
    g4_blocks *b = &p->blocks;
    p->rows = g4_blocks_add(b, rows, 1, sizeof *p->rows);
    p->place = g4_blocks_add(b, rows, 1, sizeof *p->place);
    p->queries = g4_blocks_add(b, rows, 1, sizeof *p->queries);
    p->units = g4_blocks_add(b, rows, 1, sizeof *p->units);
    p->normed = g4_acts_open(b, rows, (int)c->hidden, reads_ints);
    p->inner = g4_acts_open(b, rows, widest, reads_ints);
    p->x = g4_blocks_add(b, rows, p->normed.x_stride, sizeof *p->x);
    p->out = g4_blocks_add(b, rows, p->normed.x_stride, sizeof *p->out);
    p->q = g4_blocks_add(b, rows, (size_t)p->q_cols, sizeof *p->q);
    p->k = g4_blocks_add(b, rows, (size_t)p->kv_cols, sizeof *p->k);
    p->v = g4_blocks_add(b, rows, (size_t)p->kv_cols, sizeof *p->v);
    p->ple_inputs = g4_blocks_add(b, rows, (size_t)p->ple_cols, sizeof *p->ple_inputs);
    for (int full = 0; full < 2; full++) {
        p->cos[full] = g4_blocks_add(b, rows, (size_t)p->rope_cols, sizeof *p->cos[full]);
        p->sin[full] = g4_blocks_add(b, rows, (size_t)p->rope_cols, sizeof *p->sin[full]);
    }
    if (c->n_experts) g4_pass_open_experts(p, c, reads_ints);
    m->pass_bytes = b->bytes;
    return b->failed ? g4_fail(err, G4_ERR_MEMORY, "no memory for work buffers of %.1f MB", (double)b->bytes / 1e6)
                     : G4_OK;
}

size_t g4_model_room_floats(const g4_model *m)
{
    return g4_max_size(g4_attend_room_floats(m->max_head_dim), G4_ROOM_FLOATS);
}

size_t g4_model_partial_floats(const g4_model *m, int n_ctx)
{
    return g4_attend_partial_floats(n_ctx, (int)m->config->n_heads, m->max_head_dim);
}

void g4_model_close(g4_model *m)
{
    if (m->pass) g4_blocks_free(&m->pass->blocks);
    g4_free(m->a, m->pass);
    g4_free(m->a, m->layers);
    g4_free(m->a, m->kv_shapes);
    memset(m, 0, sizeof *m);
}

/* ---- Taps ----------------------------------------------------------------------------------------------
 *
 * Who asks for it sees every activation that MODEL.md names: below, one line for each. */

void g4_tap_send(const g4_taps *taps, const g4_compute *c, const g4_tap *tap)
{
    if (taps && taps->fn && !g4_pool_halted(c->pool)) taps->fn(taps->user, tap);
}

/* n rows from `row` on, whose values (n, stride) or ids these are. */
static void g4_tap_show(const g4_pass *p, const char *name, int row, int n, const float *values, const int32_t *ids,
                        size_t stride, int cols)
{
    g4_tap_send(p->taps, p->model->compute,
                &(g4_tap) { .name = name,
                            .layer = p->layer ? (int)(p->layer - p->model->layers) : -1,
                            .pos = p->rows[row].pos,
                            .n_rows = n,
                            .n_cols = cols,
                            .stride = stride,
                            .values = values,
                            .ids = ids });
}

/* Rows [first, n) of x (rows, stride). */
static void g4_tap_rows(const g4_pass *p, const char *name, const float *x, size_t stride, int cols)
{
    if (p->taps) g4_tap_show(p, name, p->first, p->n - p->first, x + (size_t)p->first * stride, NULL, stride, cols);
}

static void g4_tap_ids(const g4_pass *p, const char *name, const int32_t *ids, int cols)
{
    const size_t stride = (size_t)cols;
    if (p->taps) g4_tap_show(p, name, p->first, p->n - p->first, NULL, ids + (size_t)p->first * stride, stride, cols);
}

static void g4_tap_acts(const g4_pass *p, const char *name, const g4_acts *a, int cols)
{
    g4_tap_rows(p, name, a->x, a->x_stride, cols);
}

/* x (rows, hidden): the stream, or what a branch reads of it or adds to it. */
static void g4_tap_hidden(const g4_pass *p, const char *name, const float *x)
{
    g4_tap_rows(p, name, x, p->normed.x_stride, (int)p->model->config->hidden);
}

/* ---- 2. Norms and RoPE -------------------------------------------------------------------------------
 *
 * The building blocks of every layer. rmsnorm(x, w) = x * (mean(x^2) + eps)^-0.5 * w, by w and not by 1 + w
 * (Gemma4RMSNorm); engine/kernels.c computes it. Everything here is done for rows [first, n) of the pass. */

typedef struct {
    g4_pass *pass;
    const float *weight;
} g4_norm_job;

static void g4_each_row(g4_pass *p, g4_piece_fn fn)
{
    g4_parallel_for(p->model->compute->pool, p->n - p->first, fn, p);
}

static void g4_each_row_with(g4_pass *p, g4_piece_fn fn, const float *weight)
{
    g4_norm_job job = { p, weight };
    g4_parallel_for(p->model->compute->pool, p->n - p->first, fn, &job);
}

static float *g4_residual(const g4_pass *p, int row) { return p->x + (size_t)row * p->normed.x_stride; }

/* Row of `normed` = rmsnorm(x, weight), ready to be multiplied. */
static void g4_norm_into(const g4_pass *p, const float *x, const float *weight, int row)
{
    const g4_config *c = p->model->config;
    p->model->compute->kernels->rmsnorm(g4_acts_row(&p->normed, row), x, weight, (int)c->hidden, c->eps);
    g4_acts_ready(p->model->compute, &p->normed, row, (int)c->hidden);
}

static void g4_norm_row(const g4_task *task, int i)
{
    const g4_norm_job *s = task->job;
    const int row = s->pass->first + i;
    g4_norm_into(s->pass, g4_residual(s->pass, row), s->weight, row);
}

/* normed = rmsnorm(x, weight) */
static void g4_norm(g4_pass *p, const float *weight) { g4_each_row_with(p, g4_norm_row, weight); }

static void g4_copy_row(const g4_task *task, int i)
{
    const g4_pass *p = task->job;
    const int row = p->first + i, hidden = (int)p->model->config->hidden;
    memcpy(g4_acts_row(&p->normed, row), g4_residual(p, row), (size_t)hidden * sizeof *p->x);
    g4_acts_ready(p->model->compute, &p->normed, row, hidden);
}

/* normed = x */
static void g4_take_stream(g4_pass *p) { g4_each_row(p, g4_copy_row); }

static void g4_add_row(const g4_task *task, int i)
{
    const g4_norm_job *s = task->job;
    const g4_pass *p = s->pass;
    const g4_config *c = p->model->config;
    const int row = p->first + i;
    float *x = g4_residual(p, row), *out = p->out + (size_t)row * p->normed.x_stride;
    p->model->compute->kernels->rmsnorm(out, out, s->weight, (int)c->hidden, c->eps);
    for (uint32_t h = 0; h < c->hidden; h++) x[h] += out[h];
}

/* x += rmsnorm(out, weight): what every branch ends with. */
static void g4_add_normed(g4_pass *p, const float *weight) { g4_each_row_with(p, g4_add_row, weight); }

static void g4_scale_row(const g4_task *task, int i)
{
    const g4_pass *p = task->job;
    float *x = g4_residual(p, p->first + i);
    for (uint32_t h = 0; h < p->model->config->hidden; h++) x[h] *= p->layer->scalar;
}

/* x *= the layer's scalar */
static void g4_scale(g4_pass *p) { g4_each_row(p, g4_scale_row); }

/* Angles of a position: pos * f[i] for every pair i, in float32 as the reference. Sliding layers turn all pairs with
 * f[i] = theta^(-2i/d); in full layers f is 0 behind the first quarter ("proportional" RoPE, computed when the file is
 * written). */
static void g4_rope_angles(const g4_pass *p, int row)
{
    for (int full = 0; full < 2; full++) {
        const float *inverse = p->model->rope[full];
        float *cosine = p->cos[full] + (size_t)row * (size_t)p->rope_cols;
        float *sine = p->sin[full] + (size_t)row * (size_t)p->rope_cols;
        for (int i = 0; i < p->model->rope_half[full]; i++) {
            const float angle = (float)p->rows[row].pos * inverse[i];
            cosine[i] = cosf(angle);
            sine[i] = sinf(angle);
        }
    }
}

/* Pairs (i, i + half) of a head turn by the angle of pair i. */
static void g4_rope(float *x, const float *cosine, const float *sine, int half)
{
    for (int i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cosine[i] - b * sine[i];
        x[i + half] = b * cosine[i] + a * sine[i];
    }
}

/* ---- 3. Attention ---------------------------------------------------------------------------------------
 *
 * MODEL.md 2, Attention; Gemma4TextAttention.
 *
 * In: q, k, v as they leave their matrices. Out: softmax(q . keys) values, (rows, n_heads * head_dim), for the matrix
 * o. Scores have no scale where heads are normed (attn_scale 1; Gemma 3 has another) and no cap. Query head h reads
 * key/value head h / (n_heads / n_kv_heads), as rounded by the cache, also inside a pass. */

/* At the last owner of keys, rows whose logits nobody wants need no query. */
static int g4_first_query(const g4_pass *p)
{
    const int in_last_owner = p->layer == &p->model->layers[p->model->last_owner];
    return in_last_owner ? p->first_wanted : p->first;
}

/* Heads of one row: rmsnorm with weight on q and k and without on v, RoPE on q and k, scale on q, keys and values to
 * their page. Rows that want no query have only keys and values. */
static void g4_heads_row(const g4_task *task, int i)
{
    const g4_pass *p = task->job;
    const g4_layer *w = p->layer;
    const g4_config *c = p->model->config;
    const g4_kernels *kernels = p->model->compute->kernels;
    const int row = p->first + i, dim = (int)w->cfg.head_dim, full = (w->cfg.flags & G4_LAYER_FULL) != 0;
    const float *cosine = p->cos[full] + (size_t)row * (size_t)p->rope_cols;
    const float *sine = p->sin[full] + (size_t)row * (size_t)p->rope_cols;
    if (w->is_owner) {
        float *keys = p->k + (size_t)row * (size_t)p->kv_cols, *values = p->v + (size_t)row * (size_t)p->kv_cols;
        float *k = keys, *v = values;
        for (uint32_t h = 0; h < w->cfg.n_kv_heads; h++, k += dim, v += dim) {
            if (w->cfg.flags & G4_LAYER_K_EQ_V) memcpy(v, k, (size_t)dim * sizeof *v); /* before k's norm and RoPE */
            if (c->flags & G4_CONFIG_V_NORM) kernels->rmsnorm(v, v, NULL, dim, c->eps);
            kernels->rmsnorm(k, k, w->k_norm, dim, c->eps);
            g4_rope(k, cosine, sine, dim / 2);
        }
        g4_kv_store(p->rows[row].kv, w->cache, p->rows[row].pos, keys, values);
    }
    if (row < g4_first_query(p)) return;
    float *q = p->q + (size_t)row * (size_t)p->q_cols;
    for (uint32_t h = 0; h < c->n_heads; h++, q += dim) {
        kernels->rmsnorm(q, q, w->q_norm, dim, c->eps);
        g4_rope(q, cosine, sine, dim / 2);
        if (c->attn_scale != 1.0f)
            for (int d = 0; d < dim; d++) q[d] *= c->attn_scale;
    }
}

/* attention = softmax(q . keys) values for rows [first, n). A sliding layer shows a row the last `window` positions,
 * its own among them, and inside a two-way picture block its future too; a full layer all positions up to the row's
 * own. */
static void g4_attention(g4_pass *p, const g4_acts *attention)
{
    const g4_layer *w = p->layer;
    const int full = (w->cfg.flags & G4_LAYER_FULL) != 0, window = (int)p->model->config->window;
    const int n_kv_heads = (int)w->cfg.n_kv_heads, group = (int)p->model->config->n_heads / n_kv_heads;
    for (int row = p->first; row < p->n; row++) {
        const g4_row *r = &p->rows[row];
        p->queries[row] = (g4_query) { .kv = r->kv,
                                       .q = p->q + (size_t)row * (size_t)p->q_cols,
                                       .out = g4_acts_row(attention, row),
                                       .first = full ? 0 : g4_window_start(r->pos + 1, window),
                                       .end = (full ? r->pos : r->last_visible) + 1 };
    }
    g4_attend_queries(p->model->compute, p->queries + p->first, p->n - p->first, w->cache, n_kv_heads, group,
                      (int)w->cfg.head_dim, p->units);
}

/* ---- 4. Feed-forward -------------------------------------------------------------------------------------
 *
 * MODEL.md 2, MLP; Gemma4TextMLP.
 *
 * In: normed. Out: down . (gelu(gate . x) * (up . x)), for the stream or, beside experts, for their sum. */

static void g4_mlp(g4_pass *p, float *out)
{
    const g4_compute *compute = p->model->compute;
    const g4_layer *w = p->layer;
    const int mlp_dim = (int)w->cfg.mlp_dim;
    const g4_acts h = g4_acts_as(&p->inner, mlp_dim);
    const g4_stack gate_up = { .first = w->gate_up };
    const g4_share all = { 0, p->first, p->n };
    g4_matmul_geglu(compute, &h, &gate_up, &p->normed, &all, 1);
    g4_acts_ready_rows(compute, &h, p->first, p->n, mlp_dim);
    g4_tap_acts(p, "mlp_hidden", &h, mlp_dim);
    const g4_product down = { .w = &w->down, .y = out, .stride = p->normed.x_stride, .first = p->first, .end = p->n };
    g4_matmul(compute, &down, 1, &h);
}

/* ---- 5. Experts ------------------------------------------------------------------------------------------
 *
 * 26B-A4B: 128 small MLPs beside the dense one, of which each row chooses eight. The router and the experts read the
 * residual stream, each through a norm of its own, not the dense branch's. Rows go expert by expert, so that each
 * expert's weights are read once. */

/* Inner row = rmsnorm(x, router_scale) * hidden^-0.5: what the router reads. */
static void g4_router_input_row(const g4_task *task, int i)
{
    const g4_pass *p = task->job;
    const g4_config *c = p->model->config;
    const int row = p->first + i, hidden = (int)c->hidden;
    const g4_acts input = g4_acts_as(&p->inner, hidden);
    float *y = g4_acts_row(&input, row);
    p->model->compute->kernels->rmsnorm(y, g4_residual(p, row), p->layer->router_scale, hidden, c->eps);
    const float scale = 1.0f / sqrtf((float)hidden);
    for (int h = 0; h < hidden; h++) y[h] *= scale;
    g4_acts_ready(p->model->compute, &input, row, hidden);
}

/* p = softmax(p) over n experts. */
static void g4_softmax(float *p, int n)
{
    float largest = p[0], total = 0;
    for (int i = 1; i < n; i++) largest = fmaxf(largest, p[i]);
    for (int i = 0; i < n; i++) {
        p[i] = expf(p[i] - largest);
        total += p[i];
    }
    for (int i = 0; i < n; i++) p[i] /= total;
}

/* The `used` most probable of n experts, best first, ties to the lower id. */
static void g4_choose_experts(const float *p, int n, int used, int *expert, float *gain)
{
    for (int k = 0; k < used; k++) {
        int best = -1;
        for (int i = 0; i < n; i++) {
            int taken = 0;
            for (int j = 0; j < k; j++) taken |= expert[j] == i;
            if (!taken && (best < 0 || p[i] > p[best])) best = i;
        }
        expert[k] = best;
        gain[k] = p[best];
    }
}

/* By ascending id: the order of the reference's sum. */
static void g4_sort_experts(int used, int *expert, float *gain)
{
    for (int k = 1; k < used; k++) {
        const int id = expert[k];
        const float g = gain[k];
        int j = k;
        for (; j > 0 && expert[j - 1] > id; j--) {
            expert[j] = expert[j - 1];
            gain[j] = gain[j - 1];
        }
        expert[j] = id;
        gain[j] = g;
    }
}

/* Softmax over all experts, the best of them, their weights renormalised and multiplied by expert_scale
 * (Gemma4TextRouter). */
static void g4_route_row(const g4_task *task, int i)
{
    const g4_pass *p = task->job;
    const int row = p->first + i, n = (int)p->model->config->n_experts, used = (int)p->model->config->n_experts_used;
    float *probability = p->route + (size_t)row * g4_round_up((size_t)n, 16);
    int *expert = p->expert + (size_t)row * (size_t)used;
    float *gain = p->gain + (size_t)row * (size_t)used, sum = 0;
    g4_softmax(probability, n);
    g4_choose_experts(probability, n, used, expert, gain);
    for (int k = 0; k < used; k++) sum += gain[k];
    for (int k = 0; k < used; k++) gain[k] = gain[k] / sum * p->layer->expert_scale[expert[k]];
    g4_sort_experts(used, expert, gain);
}

/* Give every (row, expert) a row in the gathered buffers, expert by expert. Returns the number of experts that have
 * any. */
static int g4_assign_experts(g4_pass *p)
{
    const int n_experts = (int)p->model->config->n_experts, used = (int)p->model->config->n_experts_used;
    int n = 0, gathered = 0;
    for (int x = 0; x < n_experts; x++) {
        const int first = gathered;
        for (int i = p->first * used; i < p->n * used; i++)
            if (p->expert[i] == x) p->gathered_row[i] = gathered++;
        if (gathered > first) p->shares[n++] = (g4_share) { x, first, gathered };
    }
    return n;
}

/* Gathered rows = rmsnorm(x, moe_norm) (pre_feedforward_layernorm_2), ready to be multiplied. */
static void g4_gather_row(const g4_task *task, int i)
{
    const g4_pass *p = task->job;
    const g4_config *c = p->model->config;
    const int row = p->first + i, used = (int)c->n_experts_used, hidden = (int)c->hidden;
    for (int k = 0; k < used; k++) {
        const int g = p->gathered_row[row * used + k];
        p->model->compute->kernels->rmsnorm(g4_acts_row(&p->gathered, g), g4_residual(p, row), p->layer->moe_norm,
                                            hidden, c->eps);
        g4_acts_ready(p->model->compute, &p->gathered, g, hidden);
    }
}

/* out = rmsnorm(dense, mlp_post_norm1) + rmsnorm(sum over the chosen experts of weight * output, mlp_post_norm2); the
 * sum stays in the inner row. */
static void g4_combine_row(const g4_task *task, int i)
{
    const g4_pass *p = task->job;
    const g4_config *c = p->model->config;
    const g4_kernels *kernels = p->model->compute->kernels;
    const int row = p->first + i, used = (int)c->n_experts_used, hidden = (int)c->hidden;
    const size_t stride = p->normed.x_stride;
    const g4_acts inner = g4_acts_as(&p->inner, hidden);
    float *sum = g4_acts_row(&inner, row), *out = p->out + (size_t)row * stride,
          *dense = p->dense + (size_t)row * stride;
    memset(sum, 0, (size_t)hidden * sizeof *sum);
    for (int k = row * used; k < (row + 1) * used; k++) {
        const float *y = p->expert_out + (size_t)p->gathered_row[k] * stride, g = p->gain[k];
        for (int h = 0; h < hidden; h++) sum[h] += g * y[h];
    }
    kernels->rmsnorm(out, sum, p->layer->mlp_post_norm2, hidden, c->eps);
    kernels->rmsnorm(dense, dense, p->layer->mlp_post_norm1, hidden, c->eps);
    for (int h = 0; h < hidden; h++) out[h] += dense[h];
}

/* What the experts read: a row has it once for each of its own, among the gathered ones. */
static void g4_tap_gathered(const g4_pass *p, const char *name)
{
    const int used = (int)p->model->config->n_experts_used, hidden = (int)p->model->config->hidden;
    for (int row = p->first; p->taps && row < p->n; row++)
        g4_tap_show(p, name, row, 1, g4_acts_row(&p->gathered, p->gathered_row[row * used]), NULL, p->gathered.x_stride,
                    hidden);
}

/* out = the dense MLP and the chosen experts, each through a norm, for rows [first, n). */
static void g4_experts(g4_pass *p)
{
    const g4_config *c = p->model->config;
    const g4_compute *compute = p->model->compute;
    const g4_layer *w = p->layer;
    g4_mlp(p, p->dense);
    g4_tap_hidden(p, "dense_out", p->dense);

    const g4_acts input = g4_acts_as(&p->inner, (int)c->hidden);
    const g4_product router = {
        .w = &w->router, .y = p->route, .stride = g4_round_up(c->n_experts, 16), .first = p->first, .end = p->n
    };
    g4_each_row(p, g4_router_input_row);
    g4_tap_hidden(p, "router_norm", input.x);
    g4_matmul(compute, &router, 1, &input);
    g4_each_row(p, g4_route_row);
    g4_tap_rows(p, "router", p->route, router.stride, (int)c->n_experts);
    g4_tap_ids(p, "router_ids", p->expert, (int)c->n_experts_used);
    g4_tap_rows(p, "router_weights", p->gain, c->n_experts_used, (int)c->n_experts_used);

    const int n = g4_assign_experts(p), n_gathered = (p->n - p->first) * (int)c->n_experts_used;
    g4_each_row(p, g4_gather_row);
    g4_tap_gathered(p, "moe_norm");
    g4_matmul_geglu(compute, &p->expert_hidden, &w->experts_gate_up, &p->gathered, p->shares, n);
    g4_acts_ready_rows(compute, &p->expert_hidden, 0, n_gathered, (int)c->expert_dim);
    g4_matmul_shares(compute, p->expert_out, p->normed.x_stride, &w->experts_down, &p->expert_hidden, p->shares, n);
    g4_each_row(p, g4_combine_row);
    g4_tap_hidden(p, "experts_out", input.x);
}

/* ---- 6. Per-layer inputs -----------------------------------------------------------------------------------
 *
 * MODEL.md 2, Per-layer embeddings; Gemma4TextModel.get_per_layer_inputs, project_per_layer_inputs.
 *
 * E2B and E4B: besides the stream, every layer gets a vector of its own for every row, made before the first layer from
 * the token (a row of a big table) and its context (a projection of the embedding). */

typedef struct {
    const g4_pass *pass;
    int first, n_layers;
} g4_ple_job;

/* A placeholder id reads as pad in both tables (Gemma4Model masks placeholders before the embedding). */
static int g4_lookup_id(const g4_config *c, g4_token id)
{
    const uint32_t u = (uint32_t)id;
    const int placeholder = (c->image_token && u == c->image_token) || (c->audio_token && u == c->audio_token) ||
                            (c->video_token && u == c->video_token);
    return placeholder ? (int)c->pad : id;
}

/* Per layer: (rmsnorm(context part * hidden^-0.5) + token part * sqrt(dim)) * 2^-0.5, with one norm weight for all
 * layers (Gemma4TextModel.project_per_layer_inputs). Soft tokens read the pad row. */
static void g4_ple_input_row(const g4_task *task, int i)
{
    const g4_ple_job *job = task->job;
    const g4_pass *p = job->pass;
    const g4_config *c = p->model->config;
    const int row = job->first + i, dim = (int)c->ple_dim;
    const int id = p->rows[row].soft ? (int)c->pad : g4_lookup_id(c, p->rows[row].token);
    const float in_scale = 1.0f / sqrtf((float)c->hidden), table_scale = sqrtf((float)dim),
                root_half = 0.70710678118654752f;
    for (int l = 0; l < job->n_layers; l++) {
        float *y = p->ple_inputs + (size_t)row * (size_t)p->ple_cols + (size_t)(l * dim), token[G4_MAX_PLE_DIM];
        for (int d = 0; d < dim; d++) y[d] *= in_scale;
        p->model->compute->kernels->rmsnorm(y, y, p->model->ple_norm, dim, c->eps);
        g4_table_row(token, &p->model->ple_embed, id, l * dim, dim);
        for (int d = 0; d < dim; d++) y[d] = (y[d] + token[d] * table_scale) * root_half;
    }
}

/* The inputs of the first n_layers layers for rows [first, end), whose embeddings stand in `normed`. */
static void g4_ple_inputs(g4_pass *p, int first, int end, int n_layers)
{
    if (first >= end || n_layers == 0) return;
    const int groups = (n_layers * (int)p->model->config->ple_dim + 15) / 16;
    const g4_product context = { .w = &p->model->ple_proj,
                                 .y = p->ple_inputs,
                                 .stride = (size_t)p->ple_cols,
                                 .first = first,
                                 .end = end,
                                 .groups = groups };
    g4_ple_job job = { p, first, n_layers };
    g4_matmul(p->model->compute, &context, 1, &p->normed);
    g4_parallel_for(p->model->compute->pool, end - first, g4_ple_input_row, &job);
}

/* Inner row = gelu(gate) * the layer's input */
static void g4_ple_gate_row(const g4_task *task, int i)
{
    const g4_pass *p = task->job;
    const int row = p->first + i, dim = (int)p->model->config->ple_dim, l = (int)(p->layer - p->model->layers);
    const g4_acts gate = g4_acts_as(&p->inner, dim);
    float *g = g4_acts_row(&gate, row);
    const float *input = p->ple_inputs + (size_t)row * (size_t)p->ple_cols + (size_t)(l * dim);
    p->model->compute->kernels->geglu(g, g, input, dim);
    g4_acts_ready(p->model->compute, &gate, row, dim);
}

/* ---- 7. The layer ------------------------------------------------------------------------------------------
 *
 * Gemma4TextDecoderLayer. Attention and MLP: norm, branch, norm, add. With per-layer inputs a third branch, which reads
 * the stream without a norm. Then the whole stream times one number. */

/* One layer for rows [first, n). Returns 0 where nobody reads what it would go on to add. */
static int g4_layer_run(g4_pass *p, int index)
{
    const g4_model *m = p->model;
    const g4_config *c = m->config;
    const g4_layer *w = p->layer = &m->layers[index];
    const int attention_dim = (int)(c->n_heads * w->cfg.head_dim), first_query = g4_first_query(p);
    const g4_acts attention = g4_acts_as(&p->inner, attention_dim), gate = g4_acts_as(&p->inner, (int)c->ple_dim);
    const size_t q_cols = (size_t)p->q_cols, kv_cols = (size_t)p->kv_cols, hidden = p->normed.x_stride;

    /* x += rmsnorm(o . attention(q . a, k . a, v . a)), a = rmsnorm(x). Layers behind the sharing point own no k and v;
     * where V is K there is no v. */
    g4_norm(p, w->attn_norm);
    g4_tap_hidden(p, "attn_norm", p->normed.x);
    const g4_product q_k_v[] = { { .w = &w->q, .y = p->q, .stride = q_cols, .first = first_query, .end = p->n },
                                 { .w = &w->k, .y = p->k, .stride = kv_cols, .first = p->first, .end = p->n },
                                 { .w = &w->v, .y = p->v, .stride = kv_cols, .first = p->first, .end = p->n } };
    g4_matmul(m->compute, q_k_v, 3, &p->normed);
    g4_each_row(p, g4_heads_row);
    g4_tap_rows(p, "q", p->q, q_cols, attention_dim);
    if (w->is_owner) g4_tap_rows(p, "k", p->k, kv_cols, (int)(w->cfg.n_kv_heads * w->cfg.head_dim));
    if (w->is_owner) g4_tap_rows(p, "v", p->v, kv_cols, (int)(w->cfg.n_kv_heads * w->cfg.head_dim));
    p->first = first_query;
    if (p->first == p->n) return 0;
    g4_attention(p, &attention);
    g4_acts_ready_rows(m->compute, &attention, p->first, p->n, attention_dim);
    g4_tap_acts(p, "attn_heads", &attention, attention_dim);
    const g4_product o = { .w = &w->o, .y = p->out, .stride = hidden, .first = p->first, .end = p->n };
    g4_matmul(m->compute, &o, 1, &attention);
    g4_tap_hidden(p, "attn_out", p->out);
    g4_add_normed(p, w->attn_post_norm);
    g4_tap_hidden(p, "attn_post_norm", p->out);

    /* x += rmsnorm(down . (gelu(gate . m) * up . m)), m = rmsnorm(x); on the 26B with experts beside it. */
    g4_norm(p, w->mlp_norm);
    g4_tap_hidden(p, "mlp_norm", p->normed.x);
    if (w->cfg.flags & G4_LAYER_MOE)
        g4_experts(p);
    else
        g4_mlp(p, p->out);
    g4_tap_hidden(p, "mlp_out", p->out);
    g4_add_normed(p, w->mlp_post_norm);
    g4_tap_hidden(p, "mlp_post_norm", p->out);

    /* x += rmsnorm(proj . (gelu(gate . x) * the layer's input)): E2B and E4B. */
    if (c->ple_dim) {
        const g4_product gates = {
            .w = &w->ple_gate, .y = gate.x, .stride = gate.x_stride, .first = p->first, .end = p->n
        };
        const g4_product proj = { .w = &w->ple_proj, .y = p->out, .stride = hidden, .first = p->first, .end = p->n };
        g4_tap_rows(p, "ple_in", p->ple_inputs + index * (int)c->ple_dim, (size_t)p->ple_cols, (int)c->ple_dim);
        g4_take_stream(p);
        g4_matmul(m->compute, &gates, 1, &p->normed);
        g4_each_row(p, g4_ple_gate_row);
        g4_tap_acts(p, "ple_hidden", &gate, (int)c->ple_dim);
        g4_matmul(m->compute, &proj, 1, &gate);
        g4_tap_hidden(p, "ple_out", p->out);
        g4_add_normed(p, w->ple_norm);
        g4_tap_hidden(p, "ple_norm", p->out);
    }
    if (w->cfg.flags & G4_LAYER_SCALAR) g4_scale(p);
    g4_tap_hidden(p, "layer_out", p->x);
    return 1;
}

/* ---- 8. The decoder, and what a prompt skips -------------------------------------------------------------------
 *
 * In: rows. Out: keys and values in their pages, and the final states of the rows that want logits. The last layers of
 * E2B and E4B write no keys: a row whose logits nobody wants needs the layers before the last owner of keys, and of
 * that owner only k and v. */

/* x = embed[token] * sqrt(hidden), or the soft token as it is; and the angles of the row's position. */
static void g4_embed_row(const g4_task *task, int row)
{
    const g4_pass *p = task->job;
    const g4_model *m = p->model;
    const g4_config *c = m->config;
    const g4_row *r = &p->rows[row];
    float *x = g4_residual(p, row);
    if (r->soft) {
        memcpy(x, r->soft, c->hidden * sizeof *x);
    } else {
        const int id = g4_lookup_id(c, r->token);
        if (c->flags & G4_CONFIG_TIED)
            g4_matrix_row(x, &m->head, id);
        else
            g4_table_row(x, &m->embed, id, 0, (int)c->hidden);
        for (uint32_t h = 0; h < c->hidden; h++) x[h] *= c->embed_scale;
    }
    g4_rope_angles(p, row);
}

/* Rows that want no logits first, each kind in the order given. */
static void g4_place_rows(g4_pass *p, const g4_row *rows, int n)
{
    int place = 0;
    for (int wanted = 0; wanted < 2; wanted++) {
        if (wanted) p->first_wanted = place;
        for (int i = 0; i < n; i++) {
            if ((rows[i].wants_logits != 0) != wanted) continue;
            p->rows[place] = rows[i];
            p->place[i] = place++;
        }
    }
}

void g4_forward(g4_model *m, const g4_row *rows, int n, const g4_taps *taps)
{
    const g4_config *c = m->config;
    g4_pass *p = m->pass;
    p->n = n;
    p->first = 0;
    p->layer = NULL;
    p->taps = taps;
    g4_place_rows(p, rows, n);
    g4_each_row(p, g4_embed_row);
    g4_tap_hidden(p, "embed", p->x);
    if (c->ple_dim) {
        g4_take_stream(p);
        g4_ple_inputs(p, 0, p->first_wanted, m->last_owner);
        g4_ple_inputs(p, p->first_wanted, n, (int)c->n_layers);
    }
    for (int l = 0; l < (int)c->n_layers; l++)
        if (!g4_layer_run(p, l)) return;
}

const float *g4_final_state(const g4_model *m, int i) { return g4_residual(m->pass, m->pass->place[i]); }

/* ---- 9. The head -------------------------------------------------------------------------------------------------
 *
 * In: final states. Out: logits = cap * tanh(head . rmsnorm(x, norm) / cap), of all tokens or of some groups of 16. */

#define G4_SOFTCAP_PIECE 4096 /* logits */

typedef struct {
    const g4_model *m;
    const float *const *states;
    float *logits;
    float *group_max;
} g4_head_job;

static void g4_head_input_row(const g4_task *task, int i)
{
    const g4_head_job *job = task->job;
    g4_norm_into(job->m->pass, job->states[i], job->m->norm, i);
}

/* normed row i = rmsnorm(state i, norm) */
static void g4_head_inputs(g4_head_job *job, int n)
{
    g4_parallel_for(job->m->compute->pool, n, g4_head_input_row, job);
}

static int g4_group_size(const g4_model *m, int group) { return g4_min_int(16, (int)m->config->n_vocab - 16 * group); }

/* The largest of n logits, in four running maxima, so that they are one vector. */
static float g4_largest(const float *logits, int n)
{
    float largest[4] = { -INFINITY, -INFINITY, -INFINITY, -INFINITY };
    for (int i = 0; i + 4 <= n; i += 4)
        for (int k = 0; k < 4; k++) largest[k] = logits[i + k] > largest[k] ? logits[i + k] : largest[k];
    for (int i = n / 4 * 4; i < n; i++) largest[0] = logits[i] > largest[0] ? logits[i] : largest[0];
    for (int k = 1; k < 4; k++) largest[0] = largest[k] > largest[0] ? largest[k] : largest[0];
    return largest[0];
}

static void g4_note_group_max(void *user, int group)
{
    const g4_head_job *job = user;
    job->group_max[group] = g4_largest(job->logits + 16 * (size_t)group, g4_group_size(job->m, group));
}

/* logits [first, end) = cap * tanh(logits / cap); a cap of 0 is none. */
static void g4_softcap_range(const g4_model *m, float *logits, int first, int end)
{
    const float cap = m->config->softcap;
    if (cap != 0) m->compute->kernels->softcap(logits + first, end - first, cap);
}

static void g4_softcap_group(void *user, int group)
{
    const g4_head_job *job = user;
    g4_softcap_range(job->m, job->logits, 16 * group, 16 * group + g4_group_size(job->m, group));
}

static void g4_softcap_piece(const g4_task *task, int piece)
{
    const g4_head_job *job = task->job;
    const int first = piece * G4_SOFTCAP_PIECE;
    g4_softcap_range(job->m, job->logits, first, g4_min_int(first + G4_SOFTCAP_PIECE, (int)job->m->config->n_vocab));
}

void g4_head_softcap(const g4_model *m, float *logits)
{
    g4_head_job job = { .m = m, .logits = logits };
    const int pieces = ((int)m->config->n_vocab + G4_SOFTCAP_PIECE - 1) / G4_SOFTCAP_PIECE;
    g4_parallel_for(m->compute->pool, pieces, g4_softcap_piece, &job);
}

void g4_head(g4_model *m, const float *const *states, int n, float *logits, size_t stride)
{
    g4_head_job job = { .m = m, .states = states };
    const g4_product head = { .w = &m->head, .y = logits, .stride = stride, .end = n };
    g4_head_inputs(&job, n);
    g4_matmul(m->compute, &head, 1, &m->pass->normed);
    for (int i = 0; i < n; i++) g4_head_softcap(m, logits + (size_t)i * stride);
}

void g4_tap_head(g4_model *m, float *logits, size_t stride)
{
    g4_pass *p = m->pass;
    p->layer = NULL;
    for (int row = 0, n; row < p->n; row += n) {
        const float *states[G4_HEAD_ROWS];
        n = g4_min_int(G4_HEAD_ROWS, p->n - row);
        for (int i = 0; i < n; i++) states[i] = g4_residual(p, row + i);
        if (!p->taps->fn) { /* who only asks for inputs needs no logits */
            g4_head_inputs(&(g4_head_job) { .m = m, .states = states }, n);
            g4_inputs_show(m->compute, &m->head, &p->normed, 0, n);
            continue;
        }
        g4_head(m, states, n, logits, stride);
        g4_tap_show(p, "norm", row, n, p->normed.x, NULL, p->normed.x_stride, (int)m->config->hidden);
        g4_tap_show(p, "logits", row, n, logits, NULL, stride, (int)m->config->n_vocab);
    }
}

void g4_head_raw(g4_model *m, const float *state, float *logits, float *group_max)
{
    g4_head_job job = { m, &state, logits, group_max };
    const g4_product head = { .w = &m->head, .y = logits, .end = 1, .then = g4_note_group_max, .user = &job };
    g4_head_inputs(&job, 1);
    g4_matmul(m->compute, &head, 1, &m->pass->normed);
}

typedef struct {
    const g4_model *m;
    const g4_head_row *rows;
    int n;
    const float *room; /* (n, stride) */
    size_t stride;
} g4_head_rows_job;

/* Each row's logits of a group go where they belong while they are in cache. */
static void g4_hand_out_group(void *user, int group)
{
    const g4_head_rows_job *job = user;
    const int size = g4_group_size(job->m, group);
    for (int i = 0; i < job->n; i++) {
        const float *from = job->room + (size_t)i * job->stride + 16 * (size_t)group;
        memcpy(job->rows[i].logits + 16 * (size_t)group, from, (size_t)size * sizeof *from);
        if (job->rows[i].group_max) job->rows[i].group_max[group] = g4_largest(from, size);
    }
}

void g4_head_each(g4_model *m, const g4_head_row *rows, int n, float *room, size_t stride)
{
    g4_head_rows_job job = { m, rows, n, room, stride };
    const g4_product head = {
        .w = &m->head, .y = room, .stride = stride, .end = n, .then = g4_hand_out_group, .user = &job
    };
    for (int i = 0; i < n; i++) g4_norm_into(m->pass, rows[i].state, m->norm, i);
    g4_matmul(m->compute, &head, 1, &m->pass->normed);
}

void g4_head_groups(g4_model *m, const float *state, const int *groups, int n, float *logits)
{
    g4_head_job job = { .m = m, .states = &state, .logits = logits };
    const g4_product head = {
        .w = &m->head, .y = logits, .end = 1, .groups = n, .which = groups, .then = g4_softcap_group, .user = &job
    };
    g4_head_inputs(&job, 1);
    g4_matmul(m->compute, &head, 1, &m->pass->normed);
}
