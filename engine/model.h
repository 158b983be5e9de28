/* model.h - the floor of the model (gemma4.c): weights by their names, and one forward pass over a list of rows. */
#ifndef GEMMA4_MODEL_H
#define GEMMA4_MODEL_H

#include "compute.h"

/* ---- Weights ---------------------------------------------------------------------------------------- */

typedef struct {
    g4_layer_config cfg;
    int is_owner; /* owns keys and values */
    int cache;    /* index among the owners of the layer whose keys and values it reads */
    const float *attn_norm, *attn_post_norm, *mlp_norm, *mlp_post_norm; /* (hidden) */
    const float *q_norm, *k_norm;                                       /* (head_dim); k_norm: owners only */
    g4_matrix q, o;               /* (n_heads * head_dim, hidden), (hidden, n_heads * head_dim); no bias */
    g4_matrix k, v;               /* (n_kv_heads * head_dim, hidden): owners only; no v when V is K */
    g4_matrix gate_up, down;      /* (2 * pad16(mlp_dim), hidden) in alternating groups, (hidden, mlp_dim) */
    float scalar;                 /* layer_scalar, else 1 */
    g4_matrix ple_gate, ple_proj; /* (ple_dim, hidden), (hidden, ple_dim); models with per-layer inputs */
    const float *ple_norm;        /* (hidden) */
    /* mixture of experts, beside the dense MLP */
    g4_matrix router;                                        /* (n_experts, hidden) f32 */
    const float *router_scale, *expert_scale;                /* (hidden), (n_experts) */
    const float *moe_norm, *mlp_post_norm1, *mlp_post_norm2; /* (hidden) */
    g4_stack experts_gate_up, experts_down;                  /* (n_experts): as gate_up and down, expert_dim wide */
} g4_layer;

typedef struct g4_pass g4_pass; /* rows on their way through the layers, and their buffers (gemma4.c) */

typedef struct {
    const g4_config *config;
    const g4_compute *compute;
    const g4_allocator *a;
    g4_matrix head;           /* (n_vocab, hidden); the embedding too when tied */
    g4_table embed;           /* (n_vocab, hidden), untied only */
    const float *norm;        /* (hidden) */
    const float *rope[2];     /* (rope_half): inverse frequencies of sliding and full layers */
    int rope_half[2];         /* head_dim / 2; 0 when there is no such layer */
    g4_table ple_embed;       /* (n_vocab, n_layers * ple_dim) */
    g4_matrix ple_proj;       /* per_layer_model_projection (n_layers * ple_dim, hidden) */
    const float *ple_norm;    /* (ple_dim): one for all layers */
    g4_layer *layers;         /* (n_layers) */
    g4_kv_shape *kv_shapes;   /* (n_owners): of the layers that own keys and values, in their order */
    int n_owners, last_owner; /* the last such layer: behind it a prompt's tokens need not go */
    int max_head_dim;
    g4_pass *pass;
    uint64_t pass_bytes;
} g4_model;

/* ---- Opening ------------------------------------------------------------------------------------------ */

/* Bind the text decoder's tensors; failures stand in the binder. `a` and `compute` must outlive the model. */
void g4_model_bind(g4_model *m, g4_binder *b, const g4_compute *compute, const g4_allocator *a);
/* Buffers of a pass; afterwards nothing here allocates. */
g4_status g4_model_open(g4_model *m, g4_error *err);
void g4_model_close(g4_model *m);
int g4_model_max_rows(const g4_model *m);       /* the most rows of one pass, */
int g4_model_max_cols(const g4_model *m);       /* and columns of what a matrix reads */
size_t g4_model_room_floats(const g4_model *m); /* floats of compute->room that a pass needs for each thread */
/* Floats for attention of one row split over the spans of n_ctx positions: what g4_kv_open takes. */
size_t g4_model_partial_floats(const g4_model *m, int n_ctx);

/* ---- Running ------------------------------------------------------------------------------------------- */

typedef struct {
    g4_kv *kv;         /* the timeline: its pages for this position exist */
    int pos;           /* position there */
    g4_token token;    /* what stands there, or with `soft` its placeholder */
    const float *soft; /* (hidden): a soft token takes the token's place; else NULL */
    int last_visible;  /* last position that sliding layers let it see: its own, or the end of its picture block */
    int wants_logits;  /* goes through all layers; the others leave keys and values and stop where nobody reads them */
} g4_row;

/* Show an activation to the caller's taps, unless the call is to end; taps may be NULL: nobody looks. */
void g4_tap_send(const g4_taps *taps, const g4_compute *c, const g4_tap *tap);
/* Evaluate n rows, at most g4_model_max_rows. Rows of one timeline stand in the order of their positions; any number of
 * timelines may share a pass, and each row gets the bits it would get alone. With taps, which may be NULL, all
 * are rows of one timeline and want logits. */
void g4_forward(g4_model *m, const g4_row *rows, int n, const g4_taps *taps);
/* (hidden): the final state, before its norm, of row i of the last pass, which wanted logits; until the next pass. */
const float *g4_final_state(const g4_model *m, int i);

#define G4_HEAD_ROWS 8 /* states whose logits are computed together at most: the weights of the head are read once */
/* Softcapped logits (n, stride >= pad16(n_vocab)) behind n final states. */
void g4_head(g4_model *m, const float *const *states, int n, float *logits, size_t stride);
/* Show the taps of the last pass the final norm and the logits of all its rows; logits (G4_HEAD_ROWS, stride): room. */
void g4_tap_head(g4_model *m, float *logits, size_t stride);
/* Logits behind one state without their softcap, and the largest of each group of 16, noted while they are in cache. */
void g4_head_raw(g4_model *m, const float *state, float *logits, float *group_max);
typedef struct {
    const float *state;
    float *logits, *group_max; /* (n_vocab), (n_vocab / 16); no group_max: NULL */
} g4_head_row;
/* The same behind n states, each to its own place, by one read of the head; room (n, stride >= pad16(n_vocab)). */
void g4_head_each(g4_model *m, const g4_head_row *rows, int n, float *room, size_t stride);
/* Softcapped logits of some groups of 16, ascending; other logits are left as they are. */
void g4_head_groups(g4_model *m, const float *state, const int *groups, int n, float *logits);
void g4_head_softcap(const g4_model *m, float *logits); /* (n_vocab): what g4_head_raw left out */

#endif /* GEMMA4_MODEL_H */
