/* kernels_walks.h - what every instruction set shares: how products and attention walk through their operands. Only
 * kernels.c includes the vector kernels.
 *
 * Every function of an instruction set carries its own target attribute, so these files need no -m flags and one
 * binary serves every CPU; a table's usable() asks the CPU and the operating system.
 *
 * Numbers. Sums of integer products are exact, so q, d, sum and what a block sums to equal the scalar kernels bit for
 * bit. Floats are added in an order fixed by the table, never by the tile: acc = fma(scale_w * scale_x, (float)sum,
 * acc), then what shifted weights add, block after block, whether a token comes alone or in a panel. */
#ifndef GEMMA4_KERNELS_WALKS_H
#define GEMMA4_KERNELS_WALKS_H

#include "parts.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* A body that must disappear into its caller, where its constant arguments (number of tokens, types) unroll loops. */
#define G4_BODY static inline __attribute__((always_inline))

/* Keeps a sum in its register and in source order: gcc would rebalance integer sums into trees and shuffle float ones
 * between registers. Emits nothing. */
#if defined(__x86_64__)
#define G4_KEEP(v) __asm__("" : "+v"(v))
#else
#define G4_KEEP(v) __asm__("" : "+w"(v))
#endif

/* Memory that is read next, asked for from `next` on, `step` bytes further with each step of what is read now, so that
 * it arrives meanwhile. Asked for all at once it would not: a core waits for some 20 lines at a time and stands still
 * when there are more. */
typedef struct {
    const char *next;
    size_t step;
} g4_fetch;
/* All of `bytes` from p on, within `steps` steps. */
static inline g4_fetch g4_fetch_from(const void *p, size_t bytes, int steps)
{
    return (g4_fetch) { p, (bytes + (size_t)steps - 1) / (size_t)steps };
}

/* ---- Products ---------------------------------------------------------------------------------------------------
 *
 * A tile is 16 rows (one group) x a few tokens, for steps [s0, s1): it adds to y, or starts it when s0 is 0. The walk
 * keeps the activations of a block of tokens in L2 while weights pass through L1: per group, a few steps of its weights
 * are used for every tile of the block while the next ones are fetched. Where tiles themselves ask for weights `ahead`
 * bytes ahead and there are few, as in a batch, so many bytes at a time are used for all of them: the first tile asks
 * for those that come next, and they arrive while the others work (AVX2, Zen 3: 6 tokens 1.35 times as fast as in
 * longer strips, 8 tokens 1.24 times). The sums wait in y, where the block order of a row is the same for any tile. */

#define G4_TILE_ARGS float *y, size_t y_stride, const uint8_t *w, const g4_acts *x, int t, int n, int s0, int s1
typedef void (*g4_tile_fn)(G4_TILE_ARGS);
#define G4_GEMM_ARGS float *y, size_t y_stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0, int g1

#define G4_L1_WEIGHTS 14000   /* bytes of weights that are used for every tile: two of them and inputs fit in L1 */
#define G4_FEW_TILES 4        /* that use weights as they come */
#define G4_L2_ACTS 200000     /* bytes of activations per block of tokens: 512 KB of L2 less room for weights and y */
#define G4_TOKEN_BYTES_INT 80 /* of 64 inputs: int8, two scales, four sums */
#define G4_TOKEN_BYTES_FLOAT 256

G4_BODY void g4_gemm_tiles(G4_GEMM_ARGS, size_t token_bytes, int tile_tokens, size_t ahead, g4_tile_fn tile)
{
    const size_t step_bytes = w->group_bytes / (size_t)w->steps;
    const int one = t1 - t0 <= tile_tokens; /* nothing to reuse */
    const int few = ahead > 0 && t1 - t0 <= G4_FEW_TILES * tile_tokens;
    const int strip = one ? w->steps : g4_max_int((int)((few ? ahead : G4_L1_WEIGHTS) / step_bytes), 1);
    const int block = g4_max_int((int)(G4_L2_ACTS / (token_bytes * (size_t)w->steps)) / 8 * 8, 8);
    for (int ta = t0; ta < t1; ta += block) {
        const int tb = g4_min_int(ta + block, t1), tiles = (tb - ta + tile_tokens - 1) / tile_tokens;
        for (int g = g0; g < g1; g++) {
            const uint8_t *group = w->data + (size_t)g * w->group_bytes;
            float *yg = y + (size_t)(g - g0) * 16;
            for (int s = 0; s < w->steps; s += strip) {
                const int se = g4_min_int(s + strip, w->steps);
                const size_t bytes = tiles == 1 || few ? 0 : (size_t)(se - s) * step_bytes;
                g4_fetch fetch = g4_fetch_from(group + (size_t)se * step_bytes, bytes, tiles);
                for (int t = ta; t < tb; t += tile_tokens, fetch.next += fetch.step) {
                    for (size_t i = 0; i < fetch.step; i += 64) __builtin_prefetch(fetch.next + i, 0, 2); /* to L2 */
                    tile(yg + (size_t)(t - t0) * y_stride, y_stride, group, x, t, g4_min_int(tile_tokens, tb - t), s,
                         se);
                }
            }
        }
    }
}

/* The tile function of a table: the number of tokens and what BODY takes behind the steps become constants here. A set
 * of 8 is made of tiles of 1, 2, 4 and 8. */
#define G4_TILE_ARGS_CONST                                                                                             \
    float *y, size_t y_stride, const uint8_t *w, const g4_acts *x, int t, const int n, int s0, int s1
#define G4_TILES_2(NAME, TARGET, BODY, ...)                                                                            \
    TARGET static void NAME(G4_TILE_ARGS)                                                                              \
    {                                                                                                                  \
        if (n == 1)                                                                                                    \
            BODY(y, y_stride, w, x, t, 1, s0, s1, __VA_ARGS__);                                                        \
        else                                                                                                           \
            BODY(y, y_stride, w, x, t, 2, s0, s1, __VA_ARGS__);                                                        \
    }
#define G4_TILES_4(NAME, TARGET, BODY, ...)                                                                            \
    TARGET static void NAME(G4_TILE_ARGS)                                                                              \
    {                                                                                                                  \
        switch (n) {                                                                                                   \
        case 1: BODY(y, y_stride, w, x, t, 1, s0, s1, __VA_ARGS__); break;                                             \
        case 2: BODY(y, y_stride, w, x, t, 2, s0, s1, __VA_ARGS__); break;                                             \
        case 3: BODY(y, y_stride, w, x, t, 3, s0, s1, __VA_ARGS__); break;                                             \
        default: BODY(y, y_stride, w, x, t, 4, s0, s1, __VA_ARGS__); break;                                            \
        }                                                                                                              \
    }
#define G4_TILES_8(NAME, TARGET, BODY, ...)                                                                            \
    TARGET static void NAME(G4_TILE_ARGS)                                                                              \
    {                                                                                                                  \
        for (int left = n, k; left > 0; left -= k, y += (size_t)k * y_stride, t += k) {                                \
            k = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;                                                     \
            switch (k) {                                                                                               \
            case 1: BODY(y, y_stride, w, x, t, 1, s0, s1, __VA_ARGS__); break;                                         \
            case 2: BODY(y, y_stride, w, x, t, 2, s0, s1, __VA_ARGS__); break;                                         \
            case 4: BODY(y, y_stride, w, x, t, 4, s0, s1, __VA_ARGS__); break;                                         \
            default: BODY(y, y_stride, w, x, t, 8, s0, s1, __VA_ARGS__); break;                                        \
            }                                                                                                          \
        }                                                                                                              \
    }
/* A product with inputs of TOKEN_BYTES for 64 columns, TOKENS tokens a tile; a tile asks for weights AHEAD bytes
 * ahead. */
#define G4_GEMM_TILES(NAME, TARGET, TOKENS, TOKEN_BYTES, AHEAD, BODY, ...)                                             \
    G4_TILES_##TOKENS(NAME##_tiles, TARGET, BODY, __VA_ARGS__) static void NAME(G4_GEMM_ARGS)                          \
    {                                                                                                                  \
        g4_gemm_tiles(y, y_stride, w, x, t0, t1, g0, g1, TOKEN_BYTES, TOKENS, AHEAD, NAME##_tiles);                    \
    }
#define G4_GEMM_FLOAT(NAME, TARGET, TOKENS, BODY, TYPE)                                                                \
    G4_GEMM_TILES(NAME, TARGET, TOKENS, G4_TOKEN_BYTES_FLOAT, 0, BODY, TYPE)
/* NAME from NAME_f16 and NAME_bf16, by the type of the scales. */
#define G4_GEMM_BY_SCALE(NAME)                                                                                         \
    static void NAME(G4_GEMM_ARGS)                                                                                     \
    {                                                                                                                  \
        if (w->scale_type == G4_SCALE_F16)                                                                             \
            NAME##_f16(y, y_stride, w, x, t0, t1, g0, g1);                                                             \
        else                                                                                                           \
            NAME##_bf16(y, y_stride, w, x, t0, t1, g0, g1);                                                            \
    }
/* Types of bytes, with scales of any type from one body. */
#define G4_GEMM_BYTES(NAME, TARGET, TOKENS, AHEAD, BODY)                                                               \
    G4_GEMM_TILES(NAME##_blocks_f16, TARGET, TOKENS, G4_TOKEN_BYTES_INT, AHEAD, BODY, G4_SCALE_F16)                    \
    G4_GEMM_TILES(NAME##_blocks_bf16, TARGET, TOKENS, G4_TOKEN_BYTES_INT, AHEAD, BODY, G4_SCALE_BF16)                  \
    G4_GEMM_TILES(NAME##_row, TARGET, TOKENS, G4_TOKEN_BYTES_INT, AHEAD, BODY, G4_SCALE_NONE)                          \
    G4_GEMM_BY_SCALE(NAME##_blocks)                                                                                    \
    static void NAME(G4_GEMM_ARGS)                                                                                     \
    {                                                                                                                  \
        if (w->scale_type == G4_SCALE_NONE)                                                                            \
            NAME##_row(y, y_stride, w, x, t0, t1, g0, g1);                                                             \
        else                                                                                                           \
            NAME##_blocks(y, y_stride, w, x, t0, t1, g0, g1);                                                          \
    }
/* Types of nibbles, g4_gemm_q4_0_SUFFIX and so on, from one body; and all that, in a table. */
#define G4_GEMM_NIBBLES(SUFFIX, TARGET, TOKENS, AHEAD, BODY)                                                           \
    G4_GEMM_TILES(g4_gemm_q4_0_##SUFFIX##_f16, TARGET, TOKENS, G4_TOKEN_BYTES_INT, AHEAD, BODY, G4_TYPE_Q4_0,          \
                  G4_SCALE_F16)                                                                                        \
    G4_GEMM_TILES(g4_gemm_q4_0_##SUFFIX##_bf16, TARGET, TOKENS, G4_TOKEN_BYTES_INT, AHEAD, BODY, G4_TYPE_Q4_0,         \
                  G4_SCALE_BF16)                                                                                       \
    G4_GEMM_BY_SCALE(g4_gemm_q4_0_##SUFFIX)                                                                            \
    G4_GEMM_TILES(g4_gemm_q4_1_##SUFFIX, TARGET, TOKENS, G4_TOKEN_BYTES_INT, AHEAD, BODY, G4_TYPE_Q4_1, G4_SCALE_F16)  \
    G4_GEMM_TILES(g4_gemm_q5_0_##SUFFIX, TARGET, TOKENS, G4_TOKEN_BYTES_INT, AHEAD, BODY, G4_TYPE_Q5_0, G4_SCALE_F16)  \
    G4_GEMM_TILES(g4_gemm_q5_1_##SUFFIX, TARGET, TOKENS, G4_TOKEN_BYTES_INT, AHEAD, BODY, G4_TYPE_Q5_1, G4_SCALE_F16)  \
    G4_GEMM_TILES(g4_gemm_q4_k_##SUFFIX, TARGET, TOKENS, G4_TOKEN_BYTES_INT, AHEAD, BODY, G4_TYPE_Q4_K, G4_SCALE_F16)  \
    G4_GEMM_TILES(g4_gemm_q5_k_##SUFFIX, TARGET, TOKENS, G4_TOKEN_BYTES_INT, AHEAD, BODY, G4_TYPE_Q5_K, G4_SCALE_F16)  \
    G4_GEMM_TILES(g4_gemm_q6_k_##SUFFIX, TARGET, TOKENS, G4_TOKEN_BYTES_INT, AHEAD, BODY, G4_TYPE_Q6_K, G4_SCALE_F16)  \
    G4_GEMM_TILES(g4_gemm_q2_row_##SUFFIX, TARGET, TOKENS, G4_TOKEN_BYTES_INT, AHEAD, BODY, G4_TYPE_Q2_ROW,            \
                  G4_SCALE_NONE)                                                                                       \
    G4_GEMM_TILES(g4_gemm_q4_row_##SUFFIX, TARGET, TOKENS, G4_TOKEN_BYTES_INT, AHEAD, BODY, G4_TYPE_Q4_ROW,            \
                  G4_SCALE_NONE)
#define G4_NIBBLES_OF(SUFFIX)                                                                                          \
    [G4_TYPE_Q4_0] = g4_gemm_q4_0_##SUFFIX, [G4_TYPE_Q4_1] = g4_gemm_q4_1_##SUFFIX,                                    \
    [G4_TYPE_Q5_0] = g4_gemm_q5_0_##SUFFIX, [G4_TYPE_Q5_1] = g4_gemm_q5_1_##SUFFIX,                                    \
    [G4_TYPE_Q4_K] = g4_gemm_q4_k_##SUFFIX, [G4_TYPE_Q5_K] = g4_gemm_q5_k_##SUFFIX,                                    \
    [G4_TYPE_Q6_K] = g4_gemm_q6_k_##SUFFIX, [G4_TYPE_Q2_ROW] = g4_gemm_q2_row_##SUFFIX,                                \
    [G4_TYPE_Q4_ROW] = g4_gemm_q4_row_##SUFFIX

/* Where a block of a type of nibbles is. */
typedef struct {
    const uint8_t *step, *q, *high;
} g4_nibbles_at;
static inline g4_nibbles_at g4_nibbles_block(const uint8_t *step, const g4_nibbles *shape, int block)
{
    return (g4_nibbles_at) { step, step + shape->weights + G4_NIBBLE_BLOCK * block,
                             step + shape->high + G4_PLANE * shape->high_bits * block };
}

/* ---- Attention ----------------------------------------------------------------------------------------------------
 *
 * Keys and values of the tile are widened once per block of queries, in strips that fit in L1, then used for all its
 * queries; float32 ones of a narrow head are read where they are. Queries without keys are left out of the block, so
 * nothing of theirs is touched. A table may widen while it multiplies for the first queries. The tile's values are
 * fetched while scores are computed, the next tile's keys while values are summed. */

#define G4_QUERY_BLOCK 64  /* its scores are 16 KB */
#define G4_STRIP_DIMS 128  /* of a key strip (dims, 16): 8 KB */
#define G4_STRIP_WIDTH 32  /* of a value strip (64, 32): 8 KB */
#define G4_QUERY_TILE 12   /* the largest of any table */
#define G4_NARROW_HEAD 128 /* 64 rows of more floats share too few sets of L1 to be read in place */

typedef struct {
    int tile; /* the largest number of queries that the two products take */
    /* s[i][0..15] = (d0 ? s[i] : 0) + sum over dims of q[i][d0 + d] * k[d][0..15]; rows of s are G4_PAGE, of k
     * k_stride apart */
    void (*scores)(float *s, const float *const *q, int d0, const float *k, int k_stride, int dims, int n,
                   g4_fetch fetch);
    /* o[i][d0..d0+15] = o * alpha[i] + sum over j in [j0, j1) of p[i][j] * v[j][0..15]; rows of p are G4_PAGE, of v
     * v_stride apart */
    void (*values)(float *const *o, int d0, const float *alpha, const float *p, const float *v, int v_stride, int j0,
                   int j1, int n, g4_fetch fetch);
    /* The same with keys (columns 16 c..) and values (dims d0..) of the tile, which are widened to the strip on the
     * way: conversions and stores find room beside the multiplications. NULL: not measured. */
    void (*scores_widening)(float *s, const float *const *q, int d0, const g4_kv_tile *tile, g4_kv_type type, int c,
                            float *strip, int dims, int n, g4_fetch fetch);
    void (*values_widening)(float *const *o, int d0, const float *alpha, const float *p, const g4_kv_tile *tile,
                            g4_kv_type type, int head_dim, float *strip, int j0, int j1, int n, g4_fetch fetch);
    /* k (dims, 64) at columns 16 c.. to out (dims, 16); NULL with scores_widening */
    void (*widen_keys)(float *out, const g4_kv_tile *tile, g4_kv_type type, int d0, int dims, int c);
    /* v rows [j0, j1), dims d0..d0 + width - 1, to out (64, G4_STRIP_WIDTH), zeros behind width */
    void (*widen_values)(float *out, const g4_kv_tile *tile, g4_kv_type type, int head_dim, int d0, int width, int j0,
                         int j1);
    /* scores of n queries to weights, 0 outside [lo, hi); updates m and l; alpha = exp(m - m'), G4_QUERY_BLOCK long.
     * All maxima come first: they are chains of latencies, and the exponentials then wait for none. */
    void (*softmax)(float *s, int n, const int *lo, const int *hi, float *m, float *l, float *alpha);
} g4_attend_ops;

/* A tile of keys and values, and the block of n queries that it serves. */
typedef struct {
    const g4_attend_ops *ops;
    const g4_kv_tile *tile;
    g4_kv_type type;
    int head_dim, in_place;                             /* in_place: keys and values are read where they are */
    int n, tiles, j0, j1;                               /* queries, in tiles; positions that any of them sees */
    const float *q[G4_QUERY_BLOCK];                     /* each (head_dim) */
    float *o[G4_QUERY_BLOCK];                           /* likewise */
    int index[G4_QUERY_BLOCK];                          /* which of the caller's queries each is */
    int lo[G4_QUERY_BLOCK], hi[G4_QUERY_BLOCK];         /* what each sees */
    float m[G4_QUERY_BLOCK], l[G4_QUERY_BLOCK];         /* state of the softmax */
    float alpha[G4_QUERY_BLOCK];                        /* what o shrinks by */
    _Alignas(64) float s[G4_QUERY_BLOCK * G4_PAGE];     /* scores, then weights */
    _Alignas(64) float strip[G4_PAGE * G4_STRIP_WIDTH]; /* of keys, then of values */
    _Alignas(64) float tail[G4_QUERY_TILE * 16];        /* of o, where fewer than 16 dims are left */
} g4_attend_block;
_Static_assert(G4_PAGE *G4_STRIP_WIDTH >= G4_STRIP_DIMS * 16, "one buffer serves key and value strips");

/* Queries of the next tile when `left` are left. */
static inline int g4_query_tile(int left, int max)
{
    return left <= max ? left : left >= max + 4 ? max : (left + 1) / 2;
}

/* Tiles of n queries. */
static inline int g4_query_tiles(int n, int max)
{
    int tiles = 0;
    for (; n > 0; n -= g4_query_tile(n, max)) tiles++;
    return tiles;
}

/* Queries [q0, q1) that see anything. */
static void g4_attend_block_gather(g4_attend_block *a, const float *q, int q0, int q1, const int *lo, const int *hi,
                                   const float *m, const float *l, float *o)
{
    int n = 0;
    a->j0 = G4_PAGE;
    a->j1 = 0;
    for (int i = q0; i < q1; i++) {
        if (lo[i] >= hi[i]) continue;
        a->q[n] = q + (size_t)i * (size_t)a->head_dim;
        a->o[n] = o + (size_t)i * (size_t)a->head_dim;
        a->m[n] = m[i], a->l[n] = l[i], a->lo[n] = lo[i], a->hi[n] = hi[i];
        a->index[n++] = i;
        a->j0 = g4_min_int(a->j0, lo[i]);
        a->j1 = g4_max_int(a->j1, hi[i]);
    }
    a->n = n;
    a->tiles = g4_query_tiles(n, a->ops->tile);
}

/* Scores of all queries: strips of 128 dims x 16 positions. The tile's values are fetched meanwhile. */
static void g4_attend_block_scores(g4_attend_block *a)
{
    const g4_attend_ops *ops = a->ops;
    const g4_kv_tile *tile = a->tile;
    const size_t row = (size_t)a->head_dim * g4_kv_size(a->type);
    const int c0 = a->j0 / 16, c1 = (a->j1 + 15) / 16, widening = !a->in_place && ops->scores_widening;
    g4_fetch fetch = g4_fetch_from((const char *)tile->v + row * (size_t)a->j0, row * (size_t)(a->j1 - a->j0),
                                   a->tiles * (c1 - c0) * a->head_dim);
    for (int d0 = 0; d0 < a->head_dim; d0 += G4_STRIP_DIMS) {
        const int dims = g4_min_int(G4_STRIP_DIMS, a->head_dim - d0);
        for (int c = c0; c < c1; c++) {
            const float *keys = a->in_place ? (const float *)tile->k + d0 * G4_PAGE + 16 * c : a->strip;
            const int stride = a->in_place ? G4_PAGE : 16;
            if (!a->in_place && !widening) ops->widen_keys(a->strip, tile, a->type, d0, dims, c);
            for (int i = 0, k; i < a->n; i += k) {
                float *s = a->s + i * G4_PAGE + 16 * c;
                k = g4_query_tile(a->n - i, ops->tile);
                if (i == 0 && widening)
                    ops->scores_widening(s, a->q, d0, tile, a->type, c, a->strip, dims, k, fetch);
                else
                    ops->scores(s, a->q + i, d0, keys, stride, dims, k, fetch);
                fetch.next += fetch.step * (size_t)dims;
            }
        }
    }
}

/* `width` dims, fewer than 16, of k queries from i on: sums of a padded copy. */
static void g4_attend_block_tail(g4_attend_block *a, int i, int k, int d0, int width, const float *values, int stride,
                                 g4_fetch fetch)
{
    float *part[G4_QUERY_TILE];
    for (int r = 0; r < k; r++) {
        part[r] = memset(a->tail + 16 * r, 0, 16 * sizeof *a->tail);
        memcpy(part[r], a->o[i + r] + d0, (size_t)width * sizeof *a->tail);
    }
    a->ops->values(part, 0, a->alpha + i, a->s + i * G4_PAGE, values, stride, a->j0, a->j1, k, fetch);
    for (int r = 0; r < k; r++) memcpy(a->o[i + r] + d0, part[r], (size_t)width * sizeof *a->tail);
}

/* Weighted sums of all queries: strips of 64 positions x 32 dims, or 16 dims in place. The next tile's keys are fetched
 * meanwhile. */
static void g4_attend_block_values(g4_attend_block *a)
{
    const g4_attend_ops *ops = a->ops;
    const g4_kv_tile *tile = a->tile;
    const size_t row = (size_t)a->head_dim * g4_kv_size(a->type);
    g4_fetch fetch = g4_fetch_from(tile->next ? tile->next : tile->v, tile->next ? row * G4_PAGE : 0,
                                   a->tiles * ((a->head_dim + 15) / 16) * (a->j1 - a->j0));
    for (int d0 = 0, width; d0 < a->head_dim; d0 += width) {
        width = g4_min_int(a->in_place ? 16 : G4_STRIP_WIDTH, a->head_dim - d0);
        const int direct = a->in_place && width == 16, widening = !direct && width % 16 == 0 && ops->values_widening;
        const float *values = direct ? (const float *)tile->v + d0 : a->strip;
        const int stride = direct ? a->head_dim : G4_STRIP_WIDTH;
        if (!direct && !widening) ops->widen_values(a->strip, tile, a->type, a->head_dim, d0, width, a->j0, a->j1);
        for (int c = 0; c < width; c += 16)
            for (int i = 0, k; i < a->n; i += k) {
                const float *p = a->s + i * G4_PAGE;
                k = g4_query_tile(a->n - i, ops->tile);
                if (width - c < 16) {
                    g4_attend_block_tail(a, i, k, d0 + c, width - c, values + c, stride, fetch);
                    continue;
                }
                if (i == 0 && widening)
                    ops->values_widening(a->o, d0 + c, a->alpha, p, tile, a->type, a->head_dim, a->strip + c, a->j0,
                                         a->j1, k, fetch);
                else
                    ops->values(a->o + i, d0 + c, a->alpha + i, p, values + c, stride, a->j0, a->j1, k, fetch);
                fetch.next += fetch.step * (size_t)(a->j1 - a->j0);
            }
    }
}

static void g4_attend_walk(const g4_attend_ops *ops, const g4_kv_tile *tile, g4_kv_type type, int head_dim,
                           const float *q, int n_q, const int *lo, const int *hi, float *m, float *l, float *o)
{
    g4_attend_block a;
    a.ops = ops;
    a.tile = tile;
    a.type = type;
    a.head_dim = head_dim;
    a.in_place = type == G4_KV_F32 && head_dim <= G4_NARROW_HEAD;
    for (int q0 = 0; q0 < n_q; q0 += G4_QUERY_BLOCK) {
        g4_attend_block_gather(&a, q, q0, g4_min_int(q0 + G4_QUERY_BLOCK, n_q), lo, hi, m, l, o);
        if (a.n == 0) continue;
        g4_attend_block_scores(&a);
        ops->softmax(a.s, a.n, a.lo, a.hi, a.m, a.l, a.alpha);
        for (int i = 0; i < a.n; i++) m[a.index[i]] = a.m[i], l[a.index[i]] = a.l[i];
        g4_attend_block_values(&a);
    }
}

/* The two products for a constant number of queries, and the table entry. */
#define G4_CASE_SCORES(SUFFIX, N)                                                                                      \
    case N:                                                                                                            \
        g4_scores_tile_##SUFFIX(s, q, d0, k, k_stride, dims, N, fetch);                                                \
        break;
#define G4_CASE_VALUES(SUFFIX, N)                                                                                      \
    case N:                                                                                                            \
        g4_values_tile_##SUFFIX(o, d0, alpha, p, v, v_stride, j0, j1, N, fetch);                                       \
        break;
#define G4_CASES_4(C, SUFFIX) C(SUFFIX, 1) C(SUFFIX, 2) C(SUFFIX, 3) C(SUFFIX, 4)
#define G4_CASES_6(C, SUFFIX) G4_CASES_4(C, SUFFIX) C(SUFFIX, 5) C(SUFFIX, 6)
#define G4_CASES_8(C, SUFFIX) G4_CASES_6(C, SUFFIX) C(SUFFIX, 7) C(SUFFIX, 8)
#define G4_CASES_12(C, SUFFIX) G4_CASES_8(C, SUFFIX) C(SUFFIX, 9) C(SUFFIX, 10) C(SUFFIX, 11) C(SUFFIX, 12)
#define G4_ATTEND(SUFFIX, TARGET, TILE, WIDENING, KEYS, VALUES, SOFTMAX)                                               \
    TARGET static void g4_scores_##SUFFIX(float *s, const float *const *q, int d0, const float *k, int k_stride,       \
                                          int dims, int n, g4_fetch fetch)                                             \
    {                                                                                                                  \
        switch (n) {                                                                                                   \
            G4_CASES_##TILE(G4_CASE_SCORES, SUFFIX)                                                                    \
        }                                                                                                              \
    }                                                                                                                  \
    TARGET static void g4_values_##SUFFIX(float *const *o, int d0, const float *alpha, const float *p, const float *v, \
                                          int v_stride, int j0, int j1, int n, g4_fetch fetch)                         \
    {                                                                                                                  \
        switch (n) {                                                                                                   \
            G4_CASES_##TILE(G4_CASE_VALUES, SUFFIX)                                                                    \
        }                                                                                                              \
    }                                                                                                                  \
    static void g4_attend_##SUFFIX(const g4_kv_tile *tile, g4_kv_type type, int head_dim, const float *q, int n_q,     \
                                   const int *lo, const int *hi, float *m, float *l, float *o)                         \
    {                                                                                                                  \
        static const g4_attend_ops ops = {                                                                             \
            TILE, g4_scores_##SUFFIX, g4_values_##SUFFIX, WIDENING, KEYS, VALUES, SOFTMAX                              \
        };                                                                                                             \
        g4_attend_walk(&ops, tile, type, head_dim, q, n_q, lo, hi, m, l, o);                                           \
    }

/* A table whose bodies of the two products take a type, scales and a strip that they fill (NULL: none) has from them
 * the products with a strip and, for its first queries, those that widen on the way. */
#define G4_NOT_WIDENING NULL, NULL
#define G4_WIDENS(SUFFIX) g4_scores_widening_##SUFFIX, g4_values_widening_##SUFFIX
#define G4_CASE_SCORES_WIDENING(SUFFIX, N)                                                                             \
    case N:                                                                                                            \
        g4_scores_body_##SUFFIX(s, q, d0, k, G4_PAGE, known, scale, strip, dims, N, fetch);                            \
        break;
#define G4_CASE_VALUES_WIDENING(SUFFIX, N)                                                                             \
    case N:                                                                                                            \
        g4_values_body_##SUFFIX(o, d0, alpha, p, v, stride, known, scales, strip, j0, j1, N, fetch);                   \
        break;
#define G4_IF_TYPE(TYPE, CASES)                                                                                        \
    if (type == (TYPE)) {                                                                                              \
        const g4_kv_type known = TYPE;                                                                                 \
        switch (n) {                                                                                                   \
            CASES                                                                                                      \
        }                                                                                                              \
    }
#define G4_SWITCH_TYPE(CASES)                                                                                          \
    G4_IF_TYPE(G4_KV_F16, CASES)                                                                                       \
    G4_IF_TYPE(G4_KV_F32, CASES)                                                                                       \
    G4_IF_TYPE(G4_KV_Q8_0, CASES)
#define G4_WIDENING(SUFFIX, TARGET, TILE)                                                                              \
    G4_BODY TARGET void g4_scores_tile_##SUFFIX(float *s, const float *const *q, int d0, const float *k, int k_stride, \
                                                int dims, const int n, g4_fetch fetch)                                 \
    {                                                                                                                  \
        g4_scores_body_##SUFFIX(s, q, d0, k, (size_t)k_stride, G4_KV_F32, NULL, NULL, dims, n, fetch);                 \
    }                                                                                                                  \
    G4_BODY TARGET void g4_values_tile_##SUFFIX(float *const *o, int d0, const float *alpha, const float *p,           \
                                                const float *v, int v_stride, int j0, int j1, const int n,             \
                                                g4_fetch fetch)                                                        \
    {                                                                                                                  \
        g4_values_body_##SUFFIX(o, d0, alpha, p, v, (size_t)v_stride, G4_KV_F32, NULL, NULL, j0, j1, n, fetch);        \
    }                                                                                                                  \
    TARGET static void g4_scores_widening_##SUFFIX(float *s, const float *const *q, int d0, const g4_kv_tile *tile,    \
                                                   g4_kv_type type, int c, float *strip, int dims, int n,              \
                                                   g4_fetch fetch)                                                     \
    {                                                                                                                  \
        const void *k = (const char *)tile->k + ((size_t)d0 * G4_PAGE + 16 * (size_t)c) * g4_kv_size(type);            \
        const float *scale = type == G4_KV_Q8_0 ? tile->k_scale + 16 * c : NULL;                                       \
        G4_SWITCH_TYPE(G4_CASES_##TILE(G4_CASE_SCORES_WIDENING, SUFFIX))                                               \
    }                                                                                                                  \
    TARGET static void g4_values_widening_##SUFFIX(float *const *o, int d0, const float *alpha, const float *p,        \
                                                   const g4_kv_tile *tile, g4_kv_type type, int head_dim,              \
                                                   float *strip, int j0, int j1, int n, g4_fetch fetch)                \
    {                                                                                                                  \
        const size_t stride = (size_t)head_dim;                                                                        \
        const float *scales = tile->v_scale;                                                                           \
        const void *v = (const char *)tile->v + (size_t)d0 * g4_kv_size(type);                                         \
        G4_SWITCH_TYPE(G4_CASES_##TILE(G4_CASE_VALUES_WIDENING, SUFFIX))                                               \
    }

#endif /* GEMMA4_KERNELS_WALKS_H */
