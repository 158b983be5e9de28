/* small_model.h - the smallest models that have everything, made in memory: for fuzzers, which open one for each input.
 * Their vocabulary is that of a golden model, their weights mean nothing. */
#ifndef G4_SMALL_MODEL_H
#define G4_SMALL_MODEL_H

#include "engine/session.h" /* first: it asks libc for all that is needed */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define G4_SMALL_VOCABULARY "tests/data/media/e2b-q8_0.g4"

enum { /* what a small model has; and from bit 4 on the type of its matrices */
       G4_SMALL_EXPERTS = 1,
       G4_SMALL_PER_LAYER = 2, /* with layers that share keys and values */
       G4_SMALL_TOWERS = 4,
       G4_SMALL_OWN_HEAD = 8,
       G4_SMALL_TYPE_SHIFT = 4,
       G4_SMALL_SORTS = G4_N_TYPES << G4_SMALL_TYPE_SHIFT
};

typedef struct {
    uint8_t *data; /* 64-byte aligned */
    size_t size, cap;
    g4_tensor_entry table[128];
    int n_tensors;
    uint32_t type; /* of matrices */
    uint32_t random;
} g4_small;

static inline uint32_t g4_small_random(g4_small *s) { return s->random = s->random * 1664525u + 1013904223u; }

/* Room for n bytes at the next multiple of 64; they are zeros. */
static inline uint8_t *g4_small_room(g4_small *s, size_t n)
{
    const size_t at = (s->size + 63) / 64 * 64;
    if (at + n > s->cap) {
        const size_t cap = (2 * (at + n) + 4095) / 4096 * 4096;
        uint8_t *grown = (uint8_t *)aligned_alloc(4096, cap);
        if (!grown) abort();
        memset(grown, 0, cap);
        if (s->data) memcpy(grown, s->data, s->size);
        free(s->data);
        s->data = grown;
        s->cap = cap;
    }
    s->size = at + n;
    return s->data + at;
}

static inline void g4_small_add(g4_small *s, const char *prefix, int layer, const char *field, g4_layout layout,
                                uint32_t type, uint64_t d0, uint64_t d1, uint64_t d2)
{
    g4_tensor_entry *t = &s->table[s->n_tensors++];
    *t = (g4_tensor_entry) { .type = type, .layout = layout, .dims = { d0, d1, d2 } };
    t->n_dims = d2 > 1 ? 3 : d1 > 1 || layout != G4_LAYOUT_PLAIN ? 2 : 1;
    if (layer < 0)
        snprintf(t->name, sizeof t->name, "%s", prefix);
    else
        snprintf(t->name, sizeof t->name, "%s.%d.%s", prefix, layer, field);
    t->scale_type = g4_type_get(type)->scale_types & 1u << G4_SCALE_F16 ? G4_SCALE_F16 : G4_SCALE_NONE;
    const uint64_t rows = d2 > 1 ? d1 : d0, cols = d2 > 1 ? d2 : d1;
    const uint64_t matrix = (rows + 15) / 16 * g4_group_bytes(type, cols);
    if (layout == G4_LAYOUT_PLAIN)
        t->size = 4 * d0 * d1 * d2;
    else if (layout == G4_LAYOUT_ROWS)
        t->size = rows * g4_row_bytes(type, cols);
    else
        t->size = d2 > 1 ? d0 * ((matrix + 4095) / 4096 * 4096) : matrix;
}
static inline void g4_small_vector(g4_small *s, const char *prefix, int layer, const char *field, uint64_t n)
{
    g4_small_add(s, prefix, layer, field, G4_LAYOUT_PLAIN, G4_TYPE_F32, n, 1, 1);
}
static inline void g4_small_array(g4_small *s, const char *prefix, int layer, const char *field, uint64_t rows,
                                  uint64_t cols)
{
    g4_small_add(s, prefix, layer, field, G4_LAYOUT_PLAIN, G4_TYPE_F32, rows, cols, 1);
}
static inline void g4_small_matrix(g4_small *s, const char *prefix, int layer, const char *field, uint64_t rows,
                                   uint64_t cols)
{
    g4_small_add(s, prefix, layer, field, G4_LAYOUT_GROUPS16, s->type, rows, cols, 1);
}

static inline void g4_small_layer(g4_small *s, const g4_config *c, const g4_layer_config *lc, int l)
{
    static const char *const norms[] = { "attn_norm", "attn_post_norm", "mlp_norm", "mlp_post_norm" };
    static const char *const expert_norms[] = { "router_scale", "moe_norm", "mlp_post_norm1", "mlp_post_norm2" };
    const uint64_t hidden = c->hidden, q = c->n_heads * lc->head_dim, kv = lc->n_kv_heads * lc->head_dim;
    for (int i = 0; i < 4; i++) g4_small_vector(s, "l", l, norms[i], hidden);
    g4_small_vector(s, "l", l, "q_norm", lc->head_dim);
    g4_small_matrix(s, "l", l, "q", q, hidden);
    g4_small_matrix(s, "l", l, "o", hidden, q);
    if (lc->kv_source == (uint32_t)l) {
        g4_small_vector(s, "l", l, "k_norm", lc->head_dim);
        g4_small_matrix(s, "l", l, "k", kv, hidden);
        if (!(lc->flags & G4_LAYER_K_EQ_V)) g4_small_matrix(s, "l", l, "v", kv, hidden);
    }
    g4_small_matrix(s, "l", l, "gate_up", 2 * ((lc->mlp_dim + 15u) / 16 * 16), hidden);
    g4_small_matrix(s, "l", l, "down", hidden, lc->mlp_dim);
    if (lc->flags & G4_LAYER_SCALAR) g4_small_vector(s, "l", l, "scalar", 1);
    if (c->ple_dim) {
        g4_small_matrix(s, "l", l, "ple_gate", c->ple_dim, hidden);
        g4_small_matrix(s, "l", l, "ple_proj", hidden, c->ple_dim);
        g4_small_vector(s, "l", l, "ple_norm", hidden);
    }
    if (!(lc->flags & G4_LAYER_MOE)) return;
    g4_small_add(s, "l", l, "router", G4_LAYOUT_GROUPS16, G4_TYPE_F32, c->n_experts, hidden, 1);
    g4_small_vector(s, "l", l, "expert_scale", c->n_experts);
    for (int i = 0; i < 4; i++) g4_small_vector(s, "l", l, expert_norms[i], hidden);
    g4_small_add(s, "l", l, "experts.gate_up", G4_LAYOUT_GROUPS16, s->type, c->n_experts,
                 2 * ((c->expert_dim + 15u) / 16 * 16), hidden);
    g4_small_add(s, "l", l, "experts.down", G4_LAYOUT_GROUPS16, s->type, c->n_experts, hidden, c->expert_dim);
}

static inline void g4_small_towers(g4_small *s, const g4_config *c)
{
    static const char *const v_norms[] = { "attn_norm", "attn_post_norm", "mlp_norm", "mlp_post_norm" };
    static const char *const a_norms[] = { "ff1_norm",       "ff1_post_norm", "attn_norm",
                                           "attn_post_norm", "conv_norm",     "conv_mid_norm",
                                           "ff2_norm",       "ff2_post_norm", "norm" };
    static const char *const a_square[] = { "q", "k", "v", "post", "conv_out" };
    const uint64_t vh = c->v_hidden, all = c->v_heads * c->v_head_dim, ah = c->a_hidden;
    g4_small_matrix(s, "v.patch", -1, "", vh, 3 * c->v_patch * c->v_patch);
    g4_small_add(s, "v.pos", -1, "", G4_LAYOUT_ROWS, G4_TYPE_F32, 2 * c->v_n_pos, vh, 1);
    g4_small_matrix(s, "v.proj", -1, "", c->hidden, vh);
    g4_small_array(s, "v", 0, "bounds", 7, 4);
    for (int i = 0; i < 4; i++) g4_small_vector(s, "v", 0, v_norms[i], vh);
    g4_small_vector(s, "v", 0, "q_norm", c->v_head_dim);
    g4_small_vector(s, "v", 0, "k_norm", c->v_head_dim);
    g4_small_matrix(s, "v", 0, "q", all, vh);
    g4_small_matrix(s, "v", 0, "k", all, vh);
    g4_small_matrix(s, "v", 0, "v", all, vh);
    g4_small_matrix(s, "v", 0, "o", vh, all);
    g4_small_matrix(s, "v", 0, "gate", c->v_mlp, vh);
    g4_small_matrix(s, "v", 0, "up", c->v_mlp, vh);
    g4_small_matrix(s, "v", 0, "down", vh, c->v_mlp);
    g4_small_array(s, "a.conv0", -1, "", 9, c->a_conv0);
    g4_small_vector(s, "a.conv0_norm", -1, "", c->a_conv0);
    g4_small_matrix(s, "a.conv1", -1, "", c->a_conv1, 9 * c->a_conv0);
    g4_small_vector(s, "a.conv1_norm", -1, "", c->a_conv1);
    g4_small_matrix(s, "a.in", -1, "", ah, 32 * c->a_conv1);
    g4_small_matrix(s, "a.out", -1, "", c->a_out, ah);
    g4_small_vector(s, "a.out_bias", -1, "", c->a_out);
    g4_small_matrix(s, "a.proj", -1, "", c->hidden, c->a_out);
    g4_small_array(s, "a", 0, "bounds", 10, 4);
    for (int i = 0; i < 9; i++) g4_small_vector(s, "a", 0, a_norms[i], ah);
    for (int i = 0; i < 5; i++) g4_small_matrix(s, "a", 0, a_square[i], ah, ah);
    g4_small_matrix(s, "a", 0, "ff1_up", 4 * ah, ah);
    g4_small_matrix(s, "a", 0, "ff1_down", ah, 4 * ah);
    g4_small_matrix(s, "a", 0, "ff2_up", 4 * ah, ah);
    g4_small_matrix(s, "a", 0, "ff2_down", ah, 4 * ah);
    g4_small_vector(s, "a", 0, "q_scale", ah / c->a_heads);
    g4_small_array(s, "a", 0, "rel_k", c->a_context, ah);
    g4_small_matrix(s, "a", 0, "conv_in", 2 * ah, ah);
    g4_small_array(s, "a", 0, "conv", c->a_kernel, ah);
}

enum { G4_SMALL_LAYERS = 3 };

static inline void g4_small_configure(g4_config *c, g4_layer_config *layers, int sort, const g4_config *vocabulary)
{
    const int experts = sort & G4_SMALL_EXPERTS, shares = sort & G4_SMALL_PER_LAYER, towers = sort & G4_SMALL_TOWERS;
    *c = *vocabulary; /* ids, template, sampling */
    c->size = sizeof *c;
    c->layer_size = sizeof *layers;
    c->flags = G4_CONFIG_CHAT | (experts && towers ? G4_CONFIG_IMAGE_BIDIR : 0) | (experts ? 0 : G4_CONFIG_V_NORM) |
               (sort & G4_SMALL_OWN_HEAD ? 0 : G4_CONFIG_TIED);
    c->n_layers = G4_SMALL_LAYERS;
    c->hidden = 12;
    c->n_heads = 2;
    c->window = 5;
    c->max_ctx = 256;
    c->ple_dim = shares ? 6 : 0;
    c->n_experts = experts ? 3 : 0;
    c->n_experts_used = experts ? 2 : 0;
    c->expert_dim = experts ? 5 : 0;
    c->eps = 1e-6f;
    c->attn_scale = 1;
    c->softcap = shares ? 30 : 0;
    c->embed_scale = 3.5f;
    c->v_layers = c->a_layers = towers ? 1 : 0;
    c->v_hidden = 8;
    c->v_heads = c->a_heads = 2;
    c->v_head_dim = 4;
    c->v_mlp = 9;
    c->v_patch = 2;
    c->v_pool = 3;
    c->v_n_pos = 100;
    c->v_flags = 0;
    c->a_hidden = 8;
    c->a_conv0 = 3;
    c->a_conv1 = 2;
    c->a_kernel = 3;
    c->a_context = 4;
    c->a_out = 10;
    for (uint32_t l = 0; l < G4_SMALL_LAYERS; l++) {
        const uint32_t full = l == 1 ? G4_LAYER_FULL : 0;
        layers[l] = (g4_layer_config) { .flags = full | (experts ? G4_LAYER_MOE : 0) | (shares ? G4_LAYER_SCALAR : 0) |
                                                 (experts && full ? G4_LAYER_K_EQ_V : 0),
                                        .n_kv_heads = full ? 2 : 1,
                                        .head_dim = full ? 12 : 8,
                                        .mlp_dim = 7 + l,
                                        .kv_source = shares && l == 2 ? 0 : l };
    }
}

/* Weights that are small numbers, whatever their type: bytes 0x18 .. 0x1f give scales of some thousandths. */
static inline void g4_small_fill(g4_small *s, const g4_tensor_entry *t)
{
    uint8_t *data = s->data + t->offset;
    for (uint64_t i = 0; i < t->size; i++) data[i] = (uint8_t)(0x18 + (g4_small_random(s) >> 24) % 8);
    if (t->type != G4_TYPE_F32) return;
    for (uint64_t i = 0; i + 4 <= t->size; i += 4) {
        const float value = (float)(g4_small_random(s) >> 16) / 65536 + (t->layout == G4_LAYOUT_PLAIN ? 0.5f : -0.5f);
        memcpy(data + i, &value, 4);
    }
    for (uint64_t i = 0; strstr(t->name, ".bounds") && i < t->size; i += 4) {
        const float bound = i / 4 % 2 ? 9 : -9;
        memcpy(data + i, &bound, 4);
    }
}

static inline void g4_small_list(g4_small *s, const g4_config *c, const g4_layer_config *layers)
{
    const uint64_t ple = c->n_layers * c->ple_dim;
    if (c->flags & G4_CONFIG_TIED) {
        g4_small_matrix(s, "embed", -1, "", c->n_vocab, c->hidden);
    } else {
        g4_small_add(s, "embed", -1, "", G4_LAYOUT_ROWS, s->type, c->n_vocab, c->hidden, 1);
        g4_small_matrix(s, "head", -1, "", c->n_vocab, c->hidden);
    }
    g4_small_vector(s, "norm", -1, "", c->hidden);
    g4_small_vector(s, "rope.sliding", -1, "", layers[0].head_dim / 2);
    g4_small_vector(s, "rope.full", -1, "", layers[1].head_dim / 2);
    if (c->ple_dim) {
        g4_small_add(s, "ple.embed", -1, "", G4_LAYOUT_ROWS, G4_TYPE_Q8_0, c->n_vocab, ple, 1);
        g4_small_matrix(s, "ple.proj", -1, "", ple, c->hidden);
        g4_small_vector(s, "ple.norm", -1, "", c->ple_dim);
    }
    for (int l = 0; l < G4_SMALL_LAYERS; l++) g4_small_layer(s, c, &layers[l], l);
    if (c->v_layers) g4_small_towers(s, c);
}

/* A whole file of that sort; the caller frees it. */
static inline uint8_t *g4_small_model(int sort, size_t *size)
{
    static g4_engine *vocabulary;
    g4_small s = { .random = 1, .type = (uint32_t)(sort >> G4_SMALL_TYPE_SHIFT) };
    g4_config c;
    g4_layer_config layers[G4_SMALL_LAYERS];
    if (!vocabulary &&
        g4_engine_open(&vocabulary, &(g4_engine_options) { .model_path = G4_SMALL_VOCABULARY, .n_threads = 1 }, NULL))
        abort();
    g4_small_configure(&c, layers, sort, g4_engine_config(vocabulary));
    g4_small_list(&s, &c, layers);
    g4_file_header h = { .magic = { 'G', 'E', 'M', 'M', 'A', '4', '.', 'C' },
                         .version = G4_FILE_VERSION,
                         .endian = G4_FILE_ENDIAN,
                         .config_offset = sizeof h,
                         .config_size = sizeof c + sizeof layers,
                         .tokenizer_size = vocabulary->file.tokenizer_size,
                         .n_tensors = (uint64_t)s.n_tensors };
    g4_small_room(&s, sizeof h);
    uint8_t *config = g4_small_room(&s, sizeof c + sizeof layers);
    memcpy(config, &c, sizeof c);
    memcpy(config + sizeof c, layers, sizeof layers);
    uint8_t *tokens = g4_small_room(&s, (size_t)h.tokenizer_size);
    memcpy(tokens, vocabulary->file.tokenizer, (size_t)h.tokenizer_size);
    h.tokenizer_offset = (uint64_t)(tokens - s.data);
    const size_t table_bytes = (size_t)s.n_tensors * sizeof *s.table;
    h.table_offset = (uint64_t)(g4_small_room(&s, table_bytes) - s.data);
    h.data_offset = (s.size + 63) / 64 * 64;
    for (int i = 0; i < s.n_tensors; i++) {
        s.table[i].offset = (uint64_t)(g4_small_room(&s, (size_t)s.table[i].size) - s.data);
        g4_small_fill(&s, &s.table[i]);
    }
    memcpy(s.data + h.table_offset, s.table, table_bytes);
    h.file_size = s.size;
    memcpy(s.data, &h, sizeof h);
    h.checksum = g4_checksum(s.data + 48, (size_t)h.data_offset - 48);
    memcpy(s.data, &h, sizeof h);
    *size = s.size;
    return s.data;
}

#endif
