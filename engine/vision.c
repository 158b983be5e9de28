/* vision.c - the vision tower, MODEL.md section 7: a picture as patches of 16 x 16 pixels, row by row
 * (g4_image_patches), to one soft token of the text model's width for each 3 x 3 patches. Patch projection and learned
 * 2-D position; layers of attention (every patch sees every patch, no mask) and gated MLP; mean over 3 x 3; standardize
 * (26B, 31B); weightless norm; projection. E2B and E4B clip the inputs and outputs of the linears of the layers.
 *
 * A piece of work is a tile of 64 patches, which is also one tile of keys and values. Three jobs make a layer:
 * queries, keys and values of all tiles; attention, where a piece is one head for a group of tiles; everything else of
 * a tile with activations that stay in cache. So memory beyond h, q, k, v and what attention gave does not grow with
 * the picture, which has at most 10,080 patches. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "towers.h"

#include <float.h>

#define G4_VISION_QUERIES (4 * G4_TOWER_TILE) /* that use a tile of keys and values while it is in L2 */

/* ---- Weights by name ----------------------------------------------------------------------------- */

typedef struct {
    const float *attn_norm, *attn_post_norm, *mlp_norm, *mlp_post_norm; /* (hidden) */
    const float *q_norm, *k_norm;                                       /* (head_dim) */
    g4_linear q, k, v, o;     /* (heads * head_dim, hidden), o the other way round; no bias anywhere */
    g4_linear gate, up, down; /* (mlp, hidden), down the other way round */
} g4_vision_layer;

struct g4_vision {
    const g4_config *config;
    const g4_compute *compute;
    const g4_allocator *a;
    g4_linear patch, proj;             /* (hidden, 3 * patch^2), (text hidden, hidden); never clipped */
    g4_table pos;                      /* (2 * n_pos, hidden): x rows, then y rows */
    const float *std_bias, *std_scale; /* (hidden), or NULL */
    g4_vision_layer *layers;           /* (v_layers) */
};

static void g4_vision_bind_layer(g4_vision_layer *l, g4_binder *b, const g4_config *c, int index)
{
    const uint64_t hidden = c->v_hidden, all = (uint64_t)c->v_heads * c->v_head_dim, mlp = c->v_mlp;
    const float *bounds = g4_bind_array(b, "v", index, "bounds", 7, 4);
    const float *act = g4_bind_act(b, "v", index, 7);
    l->attn_norm = g4_bind_vector(b, "v", index, "attn_norm", hidden);
    l->attn_post_norm = g4_bind_vector(b, "v", index, "attn_post_norm", hidden);
    l->mlp_norm = g4_bind_vector(b, "v", index, "mlp_norm", hidden);
    l->mlp_post_norm = g4_bind_vector(b, "v", index, "mlp_post_norm", hidden);
    l->q_norm = g4_bind_vector(b, "v", index, "q_norm", c->v_head_dim);
    l->k_norm = g4_bind_vector(b, "v", index, "k_norm", c->v_head_dim);
    l->q = g4_bind_clipped(b, "v", index, "q", all, hidden, bounds, act, 0);
    l->k = g4_bind_clipped(b, "v", index, "k", all, hidden, bounds, act, 1);
    l->v = g4_bind_clipped(b, "v", index, "v", all, hidden, bounds, act, 2);
    l->o = g4_bind_clipped(b, "v", index, "o", hidden, all, bounds, act, 3);
    l->gate = g4_bind_clipped(b, "v", index, "gate", mlp, hidden, bounds, act, 4);
    l->up = g4_bind_clipped(b, "v", index, "up", mlp, hidden, bounds, act, 5);
    l->down = g4_bind_clipped(b, "v", index, "down", hidden, mlp, bounds, act, 6);
}

void g4_vision_bind(g4_vision **out, g4_binder *b, const g4_compute *compute, const g4_allocator *a)
{
    const g4_config *c = &b->file->config;
    const uint64_t hidden = c->v_hidden;
    *out = NULL;
    if (c->v_layers == 0 || b->status) return;
    g4_vision *tower = *out = g4_alloc(a, 1, sizeof *tower);
    if (tower) *tower = (g4_vision) { .config = c, .compute = compute, .a = a };
    if (tower) tower->layers = g4_alloc(a, c->v_layers, sizeof *tower->layers);
    if (!tower || !tower->layers) {
        b->status = g4_fail(b->err, G4_ERR_MEMORY, "no memory for the vision tower");
        return;
    }
    tower->patch = g4_bind_linear(b, "v.patch", -1, "", hidden, 3 * (uint64_t)c->v_patch * c->v_patch);
    tower->pos = g4_bind_table(b, "v.pos", -1, "", 2 * (uint64_t)c->v_n_pos, hidden);
    for (int i = 0; i < (int)c->v_layers; i++) g4_vision_bind_layer(&tower->layers[i], b, c, i);
    if (c->v_flags & G4_VISION_STANDARDIZE) {
        tower->std_bias = g4_bind_vector(b, "v.std_bias", -1, "", hidden);
        tower->std_scale = g4_bind_vector(b, "v.std_scale", -1, "", hidden);
    }
    tower->proj = g4_bind_linear(b, "v.proj", -1, "", c->hidden, hidden);
    const float *act = g4_bind_act(b, "v.", -1, 2);
    if (act) tower->patch.w.act = act, tower->proj.w.act = act + 2;
}

void g4_vision_close(g4_vision *tower)
{
    if (!tower) return;
    g4_free(tower->a, tower->layers);
    g4_free(tower->a, tower);
}

/* ---- A picture on its way through the tower ------------------------------------------------------ */

/* Queries, keys and values of a layer. The tiles of a head stand together, so that all workers read the same ones. */
typedef struct {
    size_t head_dim, tiles; /* tiles of patches; the last may be partly filled */
    float *q;               /* (heads, tiles * 64, head_dim) */
    float *k;               /* (heads, tiles, head_dim, 64) */
    float *v;               /* (heads, tiles, 64, head_dim) */
    int in16;               /* these instead of q, k and v, as g4_tile16 says: */
    int16_t *q16;           /* (heads, tiles * 64, head_dim) */
    int16_t *k16;           /* (heads, tiles, head_dim / 2, 64, 2) */
    int16_t *v16;           /* (heads, tiles, 32, pad16(head_dim), 2) */
    float *q_unit;          /* (heads, tiles * 64) */
    float *k_unit;          /* (heads, tiles * 64) */
    float v_unit;           /* values have a norm of sqrt(head_dim) at most */
} g4_vision_qkv;

/* Online softmax of G4_VISION_QUERIES queries over the keys so far: largest score, sum of weights, weighted sum. */
typedef struct {
    float *max, *sum; /* (QUERIES) */
    float *out;       /* (QUERIES, head_dim, or pad16(head_dim) when in 16 bits) */
} g4_vision_softmax;

typedef struct { /* of one worker */
    g4_linear_work linear;
    g4_view pixels;              /* (TILE, 3 * patch^2), in the memory of gate and up */
    g4_view norm;                /* (TILE, hidden) */
    g4_view outputs;             /* what a linear gives: (TILE, max(heads * head_dim, hidden, text hidden)) */
    g4_view gate, up;            /* (TILE, mlp) */
    g4_vision_softmax span, all; /* of a span of keys; of the spans so far */
} g4_vision_work;

typedef enum { /* what taps see of a layer */
               G4_VISION_ATTN_NORM,
               G4_VISION_Q,
               G4_VISION_K,
               G4_VISION_V,
               G4_VISION_ATTN_HEADS,
               G4_VISION_ATTN_OUT,
               G4_VISION_ATTN_POST_NORM,
               G4_VISION_MLP_NORM,
               G4_VISION_MLP_HIDDEN,
               G4_VISION_MLP_OUT,
               G4_VISION_MLP_POST_NORM,
               G4_VISION_LAYER_OUT,
               G4_VISION_N_KEPT
} g4_vision_kept;

typedef struct { /* shared by the pieces, each of which writes only its own tokens */
    const g4_vision *tower;
    const g4_kernels *kernels;
    const g4_patches *patches;
    const g4_vision_layer *layer;
    int query_groups; /* patches in units of G4_VISION_QUERIES */
    float *h;         /* (n, hidden): the residual stream */
    g4_vision_qkv qkv;
    float *attended;      /* (n, heads * head_dim): attention output */
    float *cos_t, *sin_t; /* (longer side, head_dim / 4): angle = position * theta^(-2 i / (head_dim / 2)) */
    float *rows;          /* (n_tokens, text hidden): the result */
    const g4_taps *taps;  /* or NULL */
    g4_kept kept[G4_VISION_N_KEPT], pooled[2]; /* of a layer; behind the last one: pooled, and its norm */
    g4_vision_work *works;                     /* one per worker */
    g4_blocks memory;
} g4_vision_run;

/* Position (x, y) of token t of a tile. */
static const int32_t *g4_vision_pos(const g4_vision_run *r, int piece, size_t t)
{
    return r->patches->pos + 2 * ((size_t)piece * G4_TOWER_TILE + t);
}

/* ---- Patch embedding ----------------------------------------------------------------------------- */

/* h = patch(2 (p - 0.5)) + (pos_x[x] + pos_y[y])      Gemma4VisionPatchEmbedder */
static void g4_vision_embed_piece(const g4_task *task, int piece)
{
    const g4_vision_run *r = task->job;
    const g4_vision_work *w = &r->works[task->worker];
    const g4_config *c = r->tower->config;
    const g4_view p = g4_tower_tile(r->patches->pixels, w->pixels.cols, r->patches->n, piece);
    const g4_view h = g4_tower_tile(r->h, c->v_hidden, r->patches->n, piece);
    const g4_view x = g4_view_as(w->pixels, p.n, p.cols);
    for (size_t i = 0; i < p.n * p.cols; i++)
        x.data[i] = 2.0f * (p.data[i] - 0.5f); /* rows of both stand side by side */
    const g4_view y = g4_linear_apply(&w->linear, &r->tower->patch, w->outputs, x);
    float *pos_x = g4_view_row(w->norm, 0), *pos_y = g4_view_row(w->norm, 1);
    for (size_t t = 0; t < h.n; t++) {
        const int32_t *pos = g4_vision_pos(r, piece, t);
        const float *from = g4_view_row(y, t);
        float *to = g4_view_row(h, t);
        g4_table_row(pos_x, &r->tower->pos, pos[0], 0, (int)h.cols);
        g4_table_row(pos_y, &r->tower->pos, (int)c->v_n_pos + pos[1], 0, (int)h.cols);
        for (size_t i = 0; i < h.cols; i++) to[i] = from[i] + (pos_x[i] + pos_y[i]);
    }
}

/* ---- Attention ----------------------------------------------------------------------------------- */

/* Rotate the pairs (i, i + d/4) of the first half of a head by the x angle and those of the second half by the y angle;
 * d = head_dim. The reference calls the first of the two "h", but its position is x: apply_multidimensional_rope. */
static void g4_vision_rope(const g4_vision_run *r, float *head, const int32_t pos[2])
{
    const size_t quarter = r->qkv.head_dim / 4;
    for (size_t axis = 0; axis < 2; axis++) {
        const float *cos_t = r->cos_t + (size_t)pos[axis] * quarter, *sin_t = r->sin_t + (size_t)pos[axis] * quarter;
        float *a = head + axis * 2 * quarter, *b = a + quarter;
        for (size_t i = 0; i < quarter; i++) {
            const float a0 = a[i], b0 = b[i];
            a[i] = a0 * cos_t[i] - b0 * sin_t[i];
            b[i] = b0 * cos_t[i] + a0 * sin_t[i];
        }
    }
}

/* The unit of a row of queries or keys: g4_tile16. n is a multiple of 4. */
static float g4_unit16(const float *x, size_t n)
{
    float squares[4] = { 0 }, max[4] = { 0 };
    for (size_t i = 0; i < n; i += 4)
        for (size_t j = 0; j < 4; j++) {
            const float a = fabsf(x[i + j]);
            squares[j] += a * a;
            max[j] = a > max[j] ? a : max[j];
        }
    const float norm = sqrtf(squares[0] + squares[1] + squares[2] + squares[3]);
    const float top = fmaxf(fmaxf(max[0], max[1]), fmaxf(max[2], max[3]));
    return fmaxf(fmaxf(norm / (float)G4_NORM16, top / (float)G4_MAX_FACTOR16), FLT_MIN);
}

typedef enum { G4_QUERY, G4_KEY, G4_VALUE } g4_vision_role;

/* Token t of a tile in one head: x (head_dim) is what it asks, is found by or gives. */
static void g4_vision_store_float(const g4_vision_qkv *s, g4_vision_role role, size_t tile, size_t t, const float *x)
{
    const size_t dim = s->head_dim, first = tile * G4_TOWER_TILE * dim;
    switch (role) {
    case G4_QUERY: memcpy(s->q + first + t * dim, x, dim * sizeof *x); break;
    case G4_KEY:
        for (size_t i = 0; i < dim; i++) s->k[first + i * G4_TOWER_TILE + t] = x[i];
        break;
    case G4_VALUE: memcpy(s->v + first + t * dim, x, dim * sizeof *x); break;
    }
}

static void g4_vision_store_int16(const g4_vision_qkv *s, const g4_kernels *kernels, g4_vision_role role, size_t tile,
                                  size_t t, const float *x)
{
    const size_t dim = s->head_dim, first = tile * G4_TOWER_TILE, slot = first + t, width = g4_round_up(dim, 16);
    const float unit = role == G4_VALUE ? s->v_unit : g4_unit16(x, dim);
    int16_t row[G4_MAX_HEAD_DIM];
    kernels->round16(role == G4_QUERY ? s->q16 + slot * dim : row, x, 1.0f / unit, (int)dim);
    switch (role) {
    case G4_QUERY: s->q_unit[slot] = unit; break;
    case G4_KEY:
        s->k_unit[slot] = unit;
        for (size_t i = 0; i < dim; i += 2) /* two dims beside each other */
            memcpy(s->k16 + first * dim + i * G4_TOWER_TILE + 2 * t, row + i, 2 * sizeof *row);
        break;
    case G4_VALUE:
        for (size_t i = 0; i < dim; i++) /* a dim of two positions beside each other */
            s->v16[(first + t / 2 * 2) * width + 2 * i + t % 2] = row[i];
        break;
    }
}

/* Norm, RoPE on queries and keys, and storage of the heads of a projection y. */
static void g4_vision_heads(const g4_vision_run *r, g4_vision_role role, const float *norm, g4_view y, int piece)
{
    const g4_config *c = r->tower->config;
    const g4_vision_qkv *s = &r->qkv;
    for (size_t t = 0; t < y.n; t++) {
        for (size_t i = 0; i < c->v_heads; i++) {
            float *head = g4_view_row(y, t) + i * s->head_dim;
            const size_t tile = i * s->tiles + (size_t)piece;
            r->kernels->rmsnorm(head, head, norm, (int)s->head_dim, c->v_eps);
            if (role != G4_VALUE) g4_vision_rope(r, head, g4_vision_pos(r, piece, t));
            if (s->in16)
                g4_vision_store_int16(s, r->kernels, role, tile, t, head);
            else
                g4_vision_store_float(s, role, tile, t, head);
        }
    }
}

/* Queries, keys and values of x = rmsnorm(h, attn_norm); values have a norm without weight. */
static void g4_vision_qkv_piece(const g4_task *task, int piece)
{
    const g4_vision_run *r = task->job;
    const g4_vision_work *w = &r->works[task->worker];
    const g4_vision_layer *l = r->layer;
    const g4_config *c = r->tower->config;
    const g4_view h = g4_tower_tile(r->h, c->v_hidden, r->patches->n, piece);
    const g4_view x = g4_view_norm(r->kernels, w->norm, h, l->attn_norm, c->v_eps);
    g4_keep(&r->kept[G4_VISION_ATTN_NORM], piece, x);
    const g4_view q = g4_linear_apply(&w->linear, &l->q, w->outputs, x);
    g4_vision_heads(r, G4_QUERY, l->q_norm, q, piece);
    g4_keep(&r->kept[G4_VISION_Q], piece, q);
    const g4_view k = g4_linear_apply_next(&w->linear, &l->k, w->outputs, x, &l->q);
    g4_vision_heads(r, G4_KEY, l->k_norm, k, piece);
    g4_keep(&r->kept[G4_VISION_K], piece, k);
    const g4_view v = g4_linear_apply_next(&w->linear, &l->v, w->outputs, x, &l->k);
    g4_vision_heads(r, G4_VALUE, NULL, v, piece);
    g4_keep(&r->kept[G4_VISION_V], piece, v);
}

/* n queries, the first of which stands in slot `query`, see the first n_keys keys of a tile. */
static void g4_vision_attend_tile(const g4_vision_run *r, size_t query, int n, size_t tile, int n_keys,
                                  const g4_vision_softmax *s)
{
    const g4_vision_qkv *qkv = &r->qkv;
    const size_t dim = qkv->head_dim, key = tile * G4_TOWER_TILE;
    if (qkv->in16) {
        const g4_tile16 kv = { qkv->k16 + key * dim, qkv->v16 + key * g4_round_up(dim, 16), qkv->k_unit + key,
                               qkv->v_unit };
        r->kernels->attend16(&kv, n_keys, (int)dim, qkv->q16 + query * dim, qkv->q_unit + query, n, s->max, s->sum,
                             s->out);
        return;
    }
    const g4_kv_tile kv = { qkv->k + key * dim, qkv->v + key * dim, NULL, NULL, NULL };
    int lo[G4_VISION_QUERIES] = { 0 }, hi[G4_VISION_QUERIES];
    for (int t = 0; t < n; t++) hi[t] = n_keys;
    r->kernels->attend(&kv, G4_KV_F32, (int)dim, qkv->q + query * dim, n, lo, hi, s->max, s->sum, s->out);
}

static void g4_vision_softmax_start(const g4_vision_softmax *s, int n, size_t width)
{
    for (int t = 0; t < n; t++) {
        s->max[t] = -INFINITY;
        s->sum[t] = 0;
    }
    memset(s->out, 0, (size_t)n * width * sizeof *s->out);
}

/* All keys of one head for a group of queries, over spans of keys as in the decoder: sums of 10,000 terms keep their
 * precision. The pieces of a head follow each other, so that all workers read the same keys and values. */
static void g4_vision_attend_piece(const g4_task *task, int piece)
{
    const g4_vision_run *r = task->job;
    const g4_vision_work *w = &r->works[task->worker];
    const size_t dim = r->qkv.head_dim, width = r->qkv.in16 ? g4_round_up(dim, 16) : dim; /* of a row of `out` */
    const int tiles = (int)r->qkv.tiles, per_span = G4_SPAN / G4_TOWER_TILE, head = piece / r->query_groups;
    const int first = piece % r->query_groups * G4_VISION_QUERIES,
              n = g4_min_int(r->patches->n - first, G4_VISION_QUERIES);
    const size_t head_tile = (size_t)head * r->qkv.tiles, query = head_tile * G4_TOWER_TILE + (size_t)first;
    g4_vision_softmax_start(&w->all, n, width);
    for (int span = 0; span < tiles; span += per_span) {
        g4_vision_softmax_start(&w->span, n, width);
        for (int tile = span; tile < g4_min_int(span + per_span, tiles); tile++) {
            const int n_keys = g4_min_int(r->patches->n - tile * G4_TOWER_TILE, G4_TOWER_TILE);
            g4_vision_attend_tile(r, query, n, head_tile + (size_t)tile, n_keys, &w->span);
        }
        for (size_t t = 0; t < (size_t)n; t++)
            g4_attend_merge(&w->all.max[t], &w->all.sum[t], w->all.out + t * width, w->span.max[t], w->span.sum[t],
                            w->span.out + t * width, (int)dim);
    }
    for (size_t t = 0; t < (size_t)n; t++) {
        float *to = r->attended + (((size_t)first + t) * r->tower->config->v_heads + (size_t)head) * dim;
        for (size_t i = 0; i < dim; i++) to[i] = w->all.out[t * width + i] / w->all.sum[t];
    }
}

/* ---- The rest of a layer ------------------------------------------------------------------------- */

/* h = h + rmsnorm(o(attention), attn_post_norm)
 * h = h + rmsnorm(down(gelu(gate(m)) * up(m)), mlp_post_norm),  m = rmsnorm(h, mlp_norm) */
static void g4_vision_layer_piece(const g4_task *task, int piece)
{
    const g4_vision_run *r = task->job;
    const g4_vision_work *w = &r->works[task->worker];
    const g4_vision_layer *l = r->layer;
    const g4_config *c = r->tower->config;
    const g4_kernels *kernels = r->kernels;
    const int n = r->patches->n;
    const g4_view h = g4_tower_tile(r->h, c->v_hidden, n, piece);
    const g4_view attended = g4_tower_tile(r->attended, c->v_heads * (size_t)c->v_head_dim, n, piece);

    g4_keep(&r->kept[G4_VISION_ATTN_HEADS], piece, attended);
    g4_view y = g4_linear_apply(&w->linear, &l->o, w->outputs, attended);
    g4_keep(&r->kept[G4_VISION_ATTN_OUT], piece, y);
    g4_view_norm(kernels, y, y, l->attn_post_norm, c->v_eps);
    g4_keep(&r->kept[G4_VISION_ATTN_POST_NORM], piece, y);
    g4_view_add(h, 1, y);

    const g4_view m = g4_view_norm(kernels, w->norm, h, l->mlp_norm, c->v_eps);
    g4_keep(&r->kept[G4_VISION_MLP_NORM], piece, m);
    const g4_view gate = g4_linear_apply(&w->linear, &l->gate, w->gate, m);
    const g4_view up = g4_linear_apply_next(&w->linear, &l->up, w->up, m, &l->gate);
    for (size_t t = 0; t < m.n; t++)
        kernels->geglu(g4_view_row(gate, t), g4_view_row(gate, t), g4_view_row(up, t), (int)gate.cols);
    g4_keep(&r->kept[G4_VISION_MLP_HIDDEN], piece, gate);
    y = g4_linear_apply(&w->linear, &l->down, w->outputs, gate);
    g4_keep(&r->kept[G4_VISION_MLP_OUT], piece, y);
    g4_view_norm(kernels, y, y, l->mlp_post_norm, c->v_eps);
    g4_keep(&r->kept[G4_VISION_MLP_POST_NORM], piece, y);
    g4_view_add(h, 1, y);
    g4_keep(&r->kept[G4_VISION_LAYER_OUT], piece, h);
}

/* ---- Pooling and projection ---------------------------------------------------------------------- */

/* Mean over pool x pool patches * sqrt(hidden); (h - bias) * scale. */
static void g4_vision_pool(const g4_vision_run *r, float *y, size_t token)
{
    const g4_vision *tower = r->tower;
    const size_t hidden = tower->config->v_hidden, pool = tower->config->v_pool, grid = (size_t)r->patches->grid_w;
    const size_t across = grid / pool, x0 = token % across * pool, y0 = token / across * pool;
    const float share = 1.0f / (float)(pool * pool), root = (float)sqrt((double)hidden);
    memset(y, 0, hidden * sizeof *y);
    for (size_t p = 0; p < pool * pool; p++) {
        const float *h = r->h + ((y0 + p / pool) * grid + x0 + p % pool) * hidden;
        for (size_t i = 0; i < hidden; i++) y[i] += share * h[i];
    }
    for (size_t i = 0; i < hidden; i++) y[i] *= root;
    if (tower->std_bias)
        for (size_t i = 0; i < hidden; i++) y[i] = (y[i] - tower->std_bias[i]) * tower->std_scale[i];
}

/* rows = proj(rmsnorm(pooled h)) */
static void g4_vision_out_piece(const g4_task *task, int piece)
{
    const g4_vision_run *r = task->job;
    const g4_vision_work *w = &r->works[task->worker];
    const g4_config *c = r->tower->config;
    const g4_view rows = g4_tower_tile(r->rows, c->hidden, r->patches->n_tokens, piece);
    const g4_view y = g4_view_as(w->norm, rows.n, c->v_hidden);
    for (size_t t = 0; t < y.n; t++) g4_vision_pool(r, g4_view_row(y, t), (size_t)piece * G4_TOWER_TILE + t);
    g4_keep(&r->pooled[0], piece, y);
    g4_view_norm(r->kernels, y, y, NULL, c->v_eps);
    g4_keep(&r->pooled[1], piece, y);
    g4_view_copy(rows, g4_linear_apply(&w->linear, &r->tower->proj, w->outputs, y));
}

/* ---- The tower ----------------------------------------------------------------------------------- */

static void g4_vision_qkv_open(g4_vision_qkv *s, g4_blocks *b, const g4_vision *tower, int n)
{
    const size_t dim = tower->config->v_head_dim, heads = tower->config->v_heads;
    s->head_dim = dim;
    s->tiles = (size_t)g4_tower_tiles(n);
    s->in16 = tower->compute->kernels->attend16 && !g4_linear_is_float32(&tower->layers[0].q);
    const size_t slots = heads * s->tiles * G4_TOWER_TILE;
    if (!s->in16) {
        s->q = g4_blocks_add(b, slots, dim, sizeof *s->q);
        s->k = g4_blocks_add(b, slots, dim, sizeof *s->k);
        s->v = g4_blocks_add(b, slots, dim, sizeof *s->v);
        return;
    }
    s->q16 = g4_blocks_add(b, slots, dim, sizeof *s->q16);
    s->k16 = g4_blocks_add(b, slots, dim, sizeof *s->k16);
    s->v16 = g4_blocks_add(b, slots, g4_round_up(dim, 16), sizeof *s->v16);
    s->q_unit = g4_blocks_add(b, slots, 1, sizeof *s->q_unit);
    s->k_unit = g4_blocks_add(b, slots, 1, sizeof *s->k_unit);
    s->v_unit = sqrtf((float)dim) / (float)G4_MAX_FACTOR16;
}

static void g4_vision_softmax_open(g4_vision_softmax *s, g4_blocks *b, size_t head_dim)
{
    s->max = g4_blocks_add(b, G4_VISION_QUERIES, 1, sizeof *s->max);
    s->sum = g4_blocks_add(b, G4_VISION_QUERIES, 1, sizeof *s->sum);
    s->out = g4_blocks_add(b, G4_VISION_QUERIES, g4_round_up(head_dim, 16), sizeof *s->out);
}

static void g4_vision_work_open(g4_vision_work *w, g4_blocks *b, const g4_vision *tower)
{
    const g4_config *c = tower->config;
    const size_t hidden = c->v_hidden, all = c->v_heads * (size_t)c->v_head_dim, mlp = c->v_mlp;
    const size_t values = 3 * (size_t)c->v_patch * c->v_patch, stride = g4_tower_stride(mlp);
    w->norm = (g4_view) { g4_blocks_add(b, G4_TOWER_TILE, hidden, sizeof(float)), G4_TOWER_TILE, hidden, hidden };
    w->outputs = g4_tower_room(b, g4_max_size(g4_max_size(hidden, all), c->hidden));
    float *room = g4_blocks_add(b, G4_TOWER_TILE, g4_max_size(2 * stride, values), sizeof *room);
    w->pixels = (g4_view) { room, G4_TOWER_TILE, values, values };
    w->gate = (g4_view) { room, G4_TOWER_TILE, mlp, stride };
    w->up = (g4_view) { room ? room + G4_TOWER_TILE * stride : NULL, G4_TOWER_TILE, mlp, stride };
    g4_vision_softmax_open(&w->span, b, c->v_head_dim);
    g4_vision_softmax_open(&w->all, b, c->v_head_dim);
    g4_linear_work_open(&w->linear, b, tower->compute,
                        g4_max_size(g4_max_size(hidden, all), g4_max_size(g4_max_size(mlp, values), c->hidden)));
}

static void g4_vision_rope_fill(const g4_vision_run *r, size_t side)
{
    const size_t half = r->qkv.head_dim / 2, quarter = half / 2;
    const double theta = (double)r->tower->config->v_rope_theta;
    for (size_t i = 0; i < quarter; i++) {
        const float inverse = (float)(1.0 / pow(theta, (double)(2 * i) / (double)half));
        for (size_t p = 0; p < side; p++) {
            const float angle = (float)p * inverse;
            r->cos_t[p * quarter + i] = (float)cos((double)angle);
            r->sin_t[p * quarter + i] = (float)sin((double)angle);
        }
    }
}

/* Room for what taps see, if there are any. */
static void g4_vision_kept_open(g4_vision_run *r)
{
    const g4_config *c = r->tower->config;
    const size_t hidden = c->v_hidden, all = c->v_heads * (size_t)c->v_head_dim;
    const g4_kept kept[G4_VISION_N_KEPT] = {
        [G4_VISION_ATTN_NORM] = { .name = "vision.attn_norm", .cols = hidden },
        [G4_VISION_Q] = { .name = "vision.q", .cols = all },
        [G4_VISION_K] = { .name = "vision.k", .cols = all },
        [G4_VISION_V] = { .name = "vision.v", .cols = all },
        [G4_VISION_ATTN_HEADS] = { .name = "vision.attn_heads", .cols = all },
        [G4_VISION_ATTN_OUT] = { .name = "vision.attn_out", .cols = hidden },
        [G4_VISION_ATTN_POST_NORM] = { .name = "vision.attn_post_norm", .cols = hidden },
        [G4_VISION_MLP_NORM] = { .name = "vision.mlp_norm", .cols = hidden },
        [G4_VISION_MLP_HIDDEN] = { .name = "vision.mlp_hidden", .cols = c->v_mlp },
        [G4_VISION_MLP_OUT] = { .name = "vision.mlp_out", .cols = hidden },
        [G4_VISION_MLP_POST_NORM] = { .name = "vision.mlp_post_norm", .cols = hidden },
        [G4_VISION_LAYER_OUT] = { .name = "vision.layer_out", .cols = hidden },
    };
    memcpy(r->kept, kept, sizeof kept);
    r->pooled[0] = (g4_kept) { .name = "vision.pooled", .cols = hidden };
    r->pooled[1] = (g4_kept) { .name = "vision.norm", .cols = hidden };
    g4_kept_open(r->kept, G4_VISION_N_KEPT, &r->memory, r->taps, r->patches->n);
    g4_kept_open(r->pooled, 2, &r->memory, r->taps, r->patches->n_tokens);
}

/* Everything a picture of that size needs; zero when memory is out, and then r->memory is to be freed all the same. */
static int g4_vision_run_open(g4_vision_run *r)
{
    const g4_config *c = r->tower->config;
    g4_blocks *b = &r->memory;
    const size_t n = (size_t)r->patches->n, side = (size_t)g4_max_int(r->patches->grid_w, r->patches->grid_h);
    const int threads = g4_pool_size(r->tower->compute->pool);
    r->query_groups = (r->patches->n + G4_VISION_QUERIES - 1) / G4_VISION_QUERIES;
    r->h = g4_blocks_add(b, n, c->v_hidden, sizeof *r->h);
    r->attended = g4_blocks_add(b, n, c->v_heads * (size_t)c->v_head_dim, sizeof *r->attended);
    g4_vision_qkv_open(&r->qkv, b, r->tower, r->patches->n);
    r->cos_t = g4_blocks_add(b, side, c->v_head_dim / 4, sizeof *r->cos_t);
    r->sin_t = g4_blocks_add(b, side, c->v_head_dim / 4, sizeof *r->sin_t);
    r->works = g4_blocks_add(b, (size_t)threads, 1, sizeof *r->works);
    for (int i = 0; i < threads && r->works; i++) g4_vision_work_open(&r->works[i], b, r->tower);
    g4_vision_kept_open(r);
    if (b->failed) return 0;
    g4_vision_rope_fill(r, side);
    return 1;
}

g4_status g4_vision_forward(const g4_vision *tower, const g4_patches *patches, float *rows, const g4_taps *taps,
                            g4_error *err)
{
    const g4_config *c = tower->config;
    const g4_compute *compute = tower->compute;
    g4_pool *pool = compute->pool;
    if (patches->grid_w > (int)c->v_n_pos || patches->grid_h > (int)c->v_n_pos)
        return g4_fail(err, G4_ERR_ARGUMENT, "a picture of %d x %d patches: the model knows %u positions each way",
                       patches->grid_w, patches->grid_h, c->v_n_pos);
    g4_vision_run r = { .tower = tower, .kernels = compute->kernels, .patches = patches, .rows = rows, .taps = taps };
    r.memory.a = tower->a;
    if (!g4_vision_run_open(&r)) {
        g4_blocks_free(&r.memory);
        return g4_fail(err, G4_ERR_MEMORY, "encoding a picture of %d patches: out of memory", patches->n);
    }
    const int n = patches->n, tiles = g4_tower_tiles(n);
    g4_tower_show(taps, compute, "vision.patches", -1, patches->pixels, n, 3 * (size_t)c->v_patch * c->v_patch);
    g4_parallel_for(pool, tiles, g4_vision_embed_piece, &r);
    g4_tower_show(taps, compute, "vision.embed", -1, r.h, n, c->v_hidden);
    for (uint32_t i = 0; i < c->v_layers; i++) {
        r.layer = &tower->layers[i];
        g4_pool_rest(pool);
        g4_parallel_for(pool, tiles, g4_vision_qkv_piece, &r);
        g4_pool_rest(pool);
        g4_parallel_for(pool, (int)c->v_heads * r.query_groups, g4_vision_attend_piece, &r);
        g4_pool_rest(pool);
        g4_parallel_for(pool, tiles, g4_vision_layer_piece, &r);
        g4_kept_show(r.kept, G4_VISION_N_KEPT, taps, compute, (int)i);
    }
    g4_pool_rest(pool);
    g4_parallel_for(pool, g4_tower_tiles(patches->n_tokens), g4_vision_out_piece, &r);
    g4_kept_show(r.pooled, 2, taps, compute, -1);
    g4_tower_show(taps, compute, "vision.out", -1, rows, patches->n_tokens, c->hidden);
    g4_blocks_free(&r.memory);
    return G4_OK;
}
