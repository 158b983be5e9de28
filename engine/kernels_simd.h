/* gemma4_simd.h - vector kernels and nothing else.
 *
 * One block per instruction set, each in the order of the scalar section of gemma4.c, which defines what is computed.
 * Every function carries its own target attribute, so the file needs no -m flags and one binary serves every CPU; a
 * table's usable() asks the CPU and the operating system. Only gemma4.c includes this file; with G4_SCALAR_ONLY, or a
 * compiler without GNU extensions, it is empty.
 *
 * Numbers. Sums of integer products are exact, so q, d, sum and every block's isum equal the scalar kernels bit for
 * bit. Floats are added in an order fixed by the table, never by the tile: acc = fma(scale_w * scale_x, (float)isum,
 * acc), block after block, whether a token comes alone or in a panel.
 *
 *   1  Walks that every instruction set shares
 *   2  x86-64: asking the CPU
 *   3  AVX2 + FMA + F16C
 *   4  AVX-VNNI: the quantised products of AVX2 with vpdpbusd
 *   5  AVX-512 (F, BW, VL, DQ), and with VNNI
 *   6  aarch64: NEON, and with the dot product
 */
#ifndef GEMMA4_SIMD_H
#define GEMMA4_SIMD_H

#if !defined(G4_SCALAR_ONLY) && defined(__GNUC__) && defined(__x86_64__)
#define G4_SIMD_X86 1
#elif !defined(G4_SCALAR_ONLY) && defined(__GNUC__) && defined(__aarch64__) && defined(__AARCH64EL__)
#define G4_SIMD_ARM 1
#endif

#if defined(G4_SIMD_X86) || defined(G4_SIMD_ARM)

#include <float.h>
#include <math.h>
#include <string.h>

/* A body that must disappear into its caller, where its constant arguments (number of tokens, types) unroll the loops.
 */
#define G4_BODY static inline __attribute__((always_inline))

#define G4_UNROLL_8 _Pragma("GCC unroll 8")

/* Keeps a sum in its register and in source order: gcc would rebalance integer sums into trees and shuffle float ones
 * between registers. Emits nothing. */
#if defined(G4_SIMD_X86)
#define G4_KEEP(v) __asm__("" : "+v"(v))
#else
#define G4_KEEP(v) __asm__("" : "+w"(v))
#endif

/* ---- 1. Walks that every instruction set shares --------------------------------------------------------
 *
 * Products. A tile is 16 rows (one group) x a few tokens, for steps [s0, s1): it adds to y, or starts it when s0 is 0.
 * The walk keeps the activations of a block of tokens in L2 while weights pass through L1: per group, k_steps steps of
 * its weights (at most 14 KB) are used for every tile of the block while the next ones are fetched. The sums wait in
 * y, where the block order of a row is the same for any tile. */

/* Memory that is read next, asked for from `at` on, `step` bytes further with each step of what is read now, so that it
 * arrives meanwhile. Asked for all at once it would not: a core waits for some 20 lines at a time and stands still when
 * there are more. */
typedef struct {
    const char *at;
    size_t step;
} g4_fetch;
/* All of `bytes` from p on, within `steps` steps. */
static inline g4_fetch g4_fetch_from(const void *p, size_t bytes, int steps)
{
    return (g4_fetch) { p, (bytes + (size_t)steps - 1) / (size_t)steps };
}

typedef void (*g4_tile_fn)(float *y, size_t y_stride, const uint8_t *w, const g4_acts *x, int t, int n, int s0, int s1);
#define G4_L2_ACTS 200000     /* bytes of activations per block of tokens: 512 KB of L2 less room for weights and y */
#define G4_TOKEN_BYTES_INT 80 /* of one step: 64 int8, two scales, two sums */
#define G4_TOKEN_BYTES_FLOAT 256

G4_BODY void g4_gemm_tiles(float *y, size_t y_stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0,
                           int g1, int k_steps, size_t token_bytes, int tile_tokens, g4_tile_fn tile)
{
    int block = (int)(G4_L2_ACTS / (token_bytes * (size_t)w->steps)) / 8 * 8;
    const size_t step_bytes = w->group_bytes / (size_t)w->steps;
    if (block < 8) block = 8;
    if (t1 - t0 <= tile_tokens) k_steps = w->steps; /* nothing to reuse */
    for (int ta = t0; ta < t1; ta += block) {
        const int tb = g4_min_int(ta + block, t1), tiles = (tb - ta + tile_tokens - 1) / tile_tokens;
        for (int g = g0; g < g1; g++) {
            const uint8_t *group = w->data + (size_t)g * w->group_bytes;
            float *yg = y + (size_t)(g - g0) * 16;
            for (int s = 0; s < w->steps; s += k_steps) {
                const int se = g4_min_int(s + k_steps, w->steps);
                const size_t bytes = tiles == 1 ? 0 : (size_t)(se - s) * step_bytes;
                g4_fetch fetch = g4_fetch_from(group + (size_t)se * step_bytes, bytes, tiles);
                for (int t = ta; t < tb; t += tile_tokens, fetch.at += fetch.step) {
                    for (size_t i = 0; i < fetch.step; i += 64) __builtin_prefetch(fetch.at + i, 0, 2); /* to L2 */
                    tile(yg + (size_t)(t - t0) * y_stride, y_stride, group, x, t, g4_min_int(tile_tokens, tb - t), s,
                         se);
                }
            }
        }
    }
}

/* The tile function of a table: the number of tokens and the type become constants here. A set of 8 is made of tiles of
 * 1, 2, 4 and 8. */
#define G4_TILE_ARGS float *y, size_t y_stride, const uint8_t *w, const g4_acts *x, int t, int n, int s0, int s1
#define G4_TILE_ARGS_CONST \
    float *y, size_t y_stride, const uint8_t *w, const g4_acts *x, int t, const int n, int s0, int s1
#define G4_TILES_2(NAME, TARGET, BODY, TYPE)                     \
    TARGET static void NAME(G4_TILE_ARGS)                        \
    {                                                            \
        if (n == 1) BODY(y, y_stride, w, x, t, 1, s0, s1, TYPE); \
        else BODY(y, y_stride, w, x, t, 2, s0, s1, TYPE);        \
    }
#define G4_TILES_4(NAME, TARGET, BODY, TYPE)                         \
    TARGET static void NAME(G4_TILE_ARGS)                            \
    {                                                                \
        switch (n) {                                                 \
        case 1: BODY(y, y_stride, w, x, t, 1, s0, s1, TYPE); break;  \
        case 2: BODY(y, y_stride, w, x, t, 2, s0, s1, TYPE); break;  \
        case 3: BODY(y, y_stride, w, x, t, 3, s0, s1, TYPE); break;  \
        default: BODY(y, y_stride, w, x, t, 4, s0, s1, TYPE); break; \
        }                                                            \
    }
#define G4_TILES_8(NAME, TARGET, BODY, TYPE)                                            \
    TARGET static void NAME(G4_TILE_ARGS)                                               \
    {                                                                                   \
        for (int left = n, k; left > 0; left -= k, y += (size_t)k * y_stride, t += k) { \
            k = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;                      \
            switch (k) {                                                                \
            case 1: BODY(y, y_stride, w, x, t, 1, s0, s1, TYPE); break;                 \
            case 2: BODY(y, y_stride, w, x, t, 2, s0, s1, TYPE); break;                 \
            case 4: BODY(y, y_stride, w, x, t, 4, s0, s1, TYPE); break;                 \
            default: BODY(y, y_stride, w, x, t, 8, s0, s1, TYPE); break;                \
            }                                                                           \
        }                                                                               \
    }
#define G4_GEMM_ARGS float *y, size_t y_stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0, int g1
/* NAME_f16 and NAME_bf16 from one body, and the product that chooses between them. */
#define G4_GEMM_QUANT(NAME, TARGET, K_STEPS, TOKENS, BODY)                                    \
    G4_TILES_##TOKENS(NAME##_f16, TARGET, BODY, G4_SCALE_F16)                                 \
        G4_TILES_##TOKENS(NAME##_bf16, TARGET, BODY, G4_SCALE_BF16) static void               \
        NAME(G4_GEMM_ARGS)                                                                    \
    {                                                                                         \
        g4_gemm_tiles(y, y_stride, w, x, t0, t1, g0, g1, K_STEPS, G4_TOKEN_BYTES_INT, TOKENS, \
                      w->scale_type == G4_SCALE_F16 ? NAME##_f16 : NAME##_bf16);              \
    }
#define G4_GEMM_FLOAT(NAME, TARGET, K_STEPS, TOKENS, BODY, TYPE)                                               \
    G4_TILES_##TOKENS(NAME##_tiles, TARGET, BODY, TYPE) static void NAME(G4_GEMM_ARGS)                         \
    {                                                                                                          \
        g4_gemm_tiles(y, y_stride, w, x, t0, t1, g0, g1, K_STEPS, G4_TOKEN_BYTES_FLOAT, TOKENS, NAME##_tiles); \
    }

/* Attention. Keys and values of the tile are widened once per block of queries, in strips that fit in L1, then used for
 * all its queries; float32 ones of a narrow head are read where they are. Queries without keys are left out of the
 * block, so nothing of theirs is touched. A table may widen while it multiplies for the first queries. The tile's
 * values are fetched while scores are computed, the next tile's keys while values are summed. */
#define G4_QUERY_BLOCK 64  /* its scores are 16 KB */
#define G4_STRIP_DIMS 128  /* of a key strip (dims, 16): 8 KB */
#define G4_STRIP_WIDTH 32  /* of a value strip (64, 32): 8 KB */
#define G4_QUERY_TILE 12   /* the largest of any table */
#define G4_NARROW_HEAD 128 /* 64 rows of more floats share too few sets of L1 to be read in place */

typedef struct {
    int tile; /* queries that the two products take at most */
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

/* Queries of the next tile when `left` are left. */
static inline int g4_query_tile(int left, int most)
{
    return left <= most ? left : left >= most + 4 ? most : (left + 1) / 2;
}

/* Tiles of n queries. */
static inline int g4_query_tiles(int n, int most)
{
    int tiles = 0;
    for (; n > 0; n -= g4_query_tile(n, most)) tiles++;
    return tiles;
}

static void g4_attend_walk(const g4_attend_ops *ops, const g4_kv_tile *tile, g4_kv_type type, int head_dim,
                           const float *q, int n_q, const int *lo, const int *hi, float *m, float *l, float *o)
{
    _Alignas(64) float s[G4_QUERY_BLOCK * G4_PAGE];
    _Alignas(64) float strip[G4_PAGE * G4_STRIP_WIDTH];
    _Alignas(64) float tail[G4_QUERY_TILE * 16];
    _Static_assert(G4_PAGE * G4_STRIP_WIDTH >= G4_STRIP_DIMS * 16, "one buffer serves key and value strips");
    const float *qs[G4_QUERY_BLOCK];
    float *os[G4_QUERY_BLOCK], ms[G4_QUERY_BLOCK], ls[G4_QUERY_BLOCK], alpha[G4_QUERY_BLOCK];
    int los[G4_QUERY_BLOCK], his[G4_QUERY_BLOCK], index[G4_QUERY_BLOCK];
    const int in_place = type == G4_KV_F32 && head_dim <= G4_NARROW_HEAD;
    const size_t row = (size_t)head_dim * g4_kv_size(type);
    for (int q0 = 0; q0 < n_q; q0 += G4_QUERY_BLOCK) {
        int n = 0, j0 = G4_PAGE, j1 = 0;
        for (int i = q0; i < g4_min_int(q0 + G4_QUERY_BLOCK, n_q); i++) {
            if (lo[i] >= hi[i]) continue;
            qs[n] = q + (size_t)i * (size_t)head_dim;
            os[n] = o + (size_t)i * (size_t)head_dim;
            ms[n] = m[i], ls[n] = l[i], los[n] = lo[i], his[n] = hi[i];
            index[n++] = i;
            j0 = g4_min_int(j0, lo[i]);
            j1 = g4_max_int(j1, hi[i]);
        }
        if (n == 0) continue;
        const int c0 = j0 / 16, c1 = (j1 + 15) / 16, tiles = g4_query_tiles(n, ops->tile);
        g4_fetch fetch = g4_fetch_from((const char *)tile->v + row * (size_t)j0, row * (size_t)(j1 - j0),
                                       tiles * (c1 - c0) * head_dim);
        for (int d0 = 0; d0 < head_dim; d0 += G4_STRIP_DIMS) {
            const int dims = g4_min_int(G4_STRIP_DIMS, head_dim - d0);
            for (int c = c0; c < c1; c++) {
                const float *keys = in_place ? (const float *)tile->k + d0 * G4_PAGE + 16 * c : strip;
                const int stride = in_place ? G4_PAGE : 16, widening = !in_place && ops->scores_widening;
                if (!in_place && !widening) ops->widen_keys(strip, tile, type, d0, dims, c);
                for (int i = 0, k; i < n; i += k) {
                    float *to = s + i * G4_PAGE + 16 * c;
                    k = g4_query_tile(n - i, ops->tile);
                    if (i == 0 && widening) ops->scores_widening(to, qs, d0, tile, type, c, strip, dims, k, fetch);
                    else ops->scores(to, qs + i, d0, keys, stride, dims, k, fetch);
                    fetch.at += fetch.step * (size_t)dims;
                }
            }
        }
        ops->softmax(s, n, los, his, ms, ls, alpha);
        for (int i = 0; i < n; i++) m[index[i]] = ms[i], l[index[i]] = ls[i];
        fetch = g4_fetch_from(tile->next ? tile->next : tile->v, tile->next ? row * G4_PAGE : 0,
                              tiles * ((head_dim + 15) / 16) * (j1 - j0));
        for (int d0 = 0, width; d0 < head_dim; d0 += width) {
            const float *values = strip;
            width = g4_min_int(in_place ? 16 : G4_STRIP_WIDTH, head_dim - d0);
            const int direct = in_place && width == 16, stride = direct ? head_dim : G4_STRIP_WIDTH;
            const int widening = !direct && width % 16 == 0 && ops->values_widening;
            if (direct) values = (const float *)tile->v + d0;
            else if (!widening) ops->widen_values(strip, tile, type, head_dim, d0, width, j0, j1);
            for (int c = 0; c < width; c += 16)
                for (int i = 0, k; i < n; i += k) {
                    k = g4_query_tile(n - i, ops->tile);
                    if (width - c >= 16) {
                        const float *p = s + i * G4_PAGE;
                        if (i == 0 && widening)
                            ops->values_widening(os, d0 + c, alpha, p, tile, type, head_dim, strip + c, j0, j1, k,
                                                 fetch);
                        else
                            ops->values(os + i, d0 + c, alpha + i, p, values + c, stride, j0, j1, k, fetch);
                        fetch.at += fetch.step * (size_t)(j1 - j0);
                        continue;
                    }
                    float *part[G4_QUERY_TILE]; /* fewer than 16 dims are left: work on a padded copy */
                    for (int r = 0; r < k; r++) {
                        part[r] = memset(tail + 16 * r, 0, 16 * sizeof *tail);
                        memcpy(part[r], os[i + r] + d0 + c, (size_t)(width - c) * sizeof *tail);
                    }
                    ops->values(part, 0, alpha + i, s + i * G4_PAGE, values + c, stride, j0, j1, k, fetch);
                    for (int r = 0; r < k; r++) memcpy(os[i + r] + d0 + c, part[r], (size_t)(width - c) * sizeof *tail);
                }
        }
    }
}

/* The two products for a constant number of queries, and the table entry. */
#define G4_CASE_SCORES(SUFFIX, N)                                       \
    case N:                                                             \
        g4_scores_tile_##SUFFIX(s, q, d0, k, k_stride, dims, N, fetch); \
        break;
#define G4_CASE_VALUES(SUFFIX, N)                                                \
    case N:                                                                      \
        g4_values_tile_##SUFFIX(o, d0, alpha, p, v, v_stride, j0, j1, N, fetch); \
        break;
#define G4_CASES_4(C, SUFFIX) C(SUFFIX, 1) C(SUFFIX, 2) C(SUFFIX, 3) C(SUFFIX, 4)
#define G4_CASES_6(C, SUFFIX) G4_CASES_4(C, SUFFIX) C(SUFFIX, 5) C(SUFFIX, 6)
#define G4_CASES_8(C, SUFFIX) G4_CASES_6(C, SUFFIX) C(SUFFIX, 7) C(SUFFIX, 8)
#define G4_CASES_12(C, SUFFIX) \
    G4_CASES_8(C, SUFFIX) C(SUFFIX, 9) C(SUFFIX, 10) C(SUFFIX, 11) C(SUFFIX, 12)
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
        static const g4_attend_ops ops = { TILE, g4_scores_##SUFFIX, g4_values_##SUFFIX, WIDENING, KEYS, VALUES,       \
                                           SOFTMAX };                                                                  \
        g4_attend_walk(&ops, tile, type, head_dim, q, n_q, lo, hi, m, l, o);                                           \
    }

/* A table whose bodies of the two products take a type, scales and a strip that they fill (NULL: none) has from them
 * the products with a strip and, for its first queries, those that widen on the way. */
#define G4_NOT_WIDENING NULL, NULL
#define G4_WIDENS(SUFFIX) g4_scores_widening_##SUFFIX, g4_values_widening_##SUFFIX
#define G4_CASE_SCORES_WIDENING(SUFFIX, N)                                                  \
    case N:                                                                                 \
        g4_scores_body_##SUFFIX(s, q, d0, k, G4_PAGE, known, scale, strip, dims, N, fetch); \
        break;
#define G4_CASE_VALUES_WIDENING(SUFFIX, N)                                                           \
    case N:                                                                                          \
        g4_values_body_##SUFFIX(o, d0, alpha, p, v, stride, known, scales, strip, j0, j1, N, fetch); \
        break;
#define G4_IF_TYPE(TYPE, CASES)        \
    if (type == (TYPE)) {              \
        const g4_kv_type known = TYPE; \
        switch (n) { CASES }           \
    }
#define G4_SWITCH_TYPE(CASES)     \
    G4_IF_TYPE(G4_KV_F16, CASES)  \
    G4_IF_TYPE(G4_KV_F32, CASES)  \
    G4_IF_TYPE(G4_KV_Q8_0, CASES)
#define G4_WIDENING(SUFFIX, TARGET, TILE)                                                                             \
    G4_BODY TARGET void g4_scores_tile_##SUFFIX(float *s, const float *const *q, int d0, const float *k,              \
                                                int k_stride, int dims, const int n, g4_fetch fetch)                  \
    {                                                                                                                 \
        g4_scores_body_##SUFFIX(s, q, d0, k, (size_t)k_stride, G4_KV_F32, NULL, NULL, dims, n, fetch);                \
    }                                                                                                                 \
    G4_BODY TARGET void g4_values_tile_##SUFFIX(float *const *o, int d0, const float *alpha, const float *p,          \
                                                const float *v, int v_stride, int j0, int j1, const int n,            \
                                                g4_fetch fetch)                                                       \
    {                                                                                                                 \
        g4_values_body_##SUFFIX(o, d0, alpha, p, v, (size_t)v_stride, G4_KV_F32, NULL, NULL, j0, j1, n, fetch);       \
    }                                                                                                                 \
    TARGET static void g4_scores_widening_##SUFFIX(float *s, const float *const *q, int d0, const g4_kv_tile *tile,   \
                                                   g4_kv_type type, int c, float *strip, int dims, int n,             \
                                                   g4_fetch fetch)                                                    \
    {                                                                                                                 \
        const void *k = (const char *)tile->k + ((size_t)d0 * G4_PAGE + 16 * (size_t)c) * g4_kv_size(type);           \
        const float *scale = type == G4_KV_Q8_0 ? tile->k_scale + 16 * c : NULL;                                      \
        G4_SWITCH_TYPE(G4_CASES_##TILE(G4_CASE_SCORES_WIDENING, SUFFIX))                                              \
    }                                                                                                                 \
    TARGET static void g4_values_widening_##SUFFIX(float *const *o, int d0, const float *alpha, const float *p,       \
                                                   const g4_kv_tile *tile, g4_kv_type type, int head_dim,             \
                                                   float *strip, int j0, int j1, int n, g4_fetch fetch)               \
    {                                                                                                                 \
        const size_t stride = (size_t)head_dim;                                                                       \
        const float *scales = tile->v_scale;                                                                          \
        const void *v = (const char *)tile->v + (size_t)d0 * g4_kv_size(type);                                        \
        G4_SWITCH_TYPE(G4_CASES_##TILE(G4_CASE_VALUES_WIDENING, SUFFIX))                                              \
    }
#endif

#if defined(G4_SIMD_X86)

#include <cpuid.h>
#include <immintrin.h>

#define G4_AVX2 __attribute__((target("avx2,fma,f16c")))
#define G4_AVXVNNI __attribute__((target("avx2,fma,f16c,avxvnni")))
#define G4_AVX512 __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")))
#define G4_AVX512VNNI __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))

/* ---- 2. x86-64: asking the CPU --------------------------------------------------------------------
 *
 * A feature counts when the CPU has it and the operating system saves its registers (XCR0). */

#define G4_HAS_AVX2 1u
#define G4_HAS_AVXVNNI 2u
#define G4_HAS_AVX512 4u
#define G4_HAS_AVX512VNNI 8u

static unsigned g4_x86_features(void)
{
    unsigned a, b, c, d, has = 0, xcr0_lo, xcr0_hi;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    const unsigned fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;
    if ((c & (fma | osxsave | avx | f16c)) != (fma | osxsave | avx | f16c)) return 0;
    __asm__ volatile("xgetbv" : "=a"(xcr0_lo), "=d"(xcr0_hi) : "c"(0));
    if ((xcr0_lo & 0x06u) != 0x06u) return 0; /* xmm and ymm */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    const unsigned avx2 = 1u << 5, f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31, vnni = 1u << 11;
    if (!(b & avx2)) return 0;
    has |= G4_HAS_AVX2;
    if ((xcr0_lo & 0xe0u) == 0xe0u &&
        (b & (f | dq | bw | vl)) == (f | dq | bw | vl)) { /* k masks, upper halves, zmm16-31 */
        has |= G4_HAS_AVX512;
        if (c & vnni) has |= G4_HAS_AVX512VNNI;
    }
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 4))) has |= G4_HAS_AVXVNNI;
    return has;
}
static int g4_usable_avx2(void) { return (g4_x86_features() & G4_HAS_AVX2) != 0; }

/* ---- 3. AVX2 + FMA + F16C ---------------------------------------------------------------------------
 *
 * Tiles of 16 rows x 4 tokens. */

/* One token reads weights faster than the core fetches them by itself, so it asks for them some steps ahead (measured
 * on Zen 3: one core then reads as fast as a bare sum over memory, 10 to 20 % faster than without). Past the end a
 * prefetch does nothing. */
#define G4_AHEAD_AVX2 2304
G4_BODY void g4_ahead_avx2(const uint8_t *p, int n_bytes)
{
    for (int i = 0; i < n_bytes; i += 64) _mm_prefetch((const char *)p + G4_AHEAD_AVX2 + i, _MM_HINT_T0);
}

/* Scales of 8 rows. */
G4_BODY G4_AVX2 __m256 g4_scales_avx2(const uint8_t *p, g4_scale_type type)
{
    const __m128i h = _mm_load_si128((const __m128i *)(const void *)p);
    if (type == G4_SCALE_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

/* y of 16 rows and one token starts at 0, then each block adds its sums (f0, f1) times both scales. */
G4_BODY G4_AVX2 void g4_start_avx2(float *y)
{
    _mm256_storeu_ps(y, _mm256_setzero_ps());
    _mm256_storeu_ps(y + 8, _mm256_setzero_ps());
}
G4_BODY G4_AVX2 void g4_add_block_avx2(float *y, __m256 sw0, __m256 sw1, __m256 dx, __m256 f0, __m256 f1)
{
    _mm256_storeu_ps(y, _mm256_fmadd_ps(_mm256_mul_ps(sw0, dx), f0, _mm256_loadu_ps(y)));
    _mm256_storeu_ps(y + 8, _mm256_fmadd_ps(_mm256_mul_ps(sw1, dx), f1, _mm256_loadu_ps(y + 8)));
}

G4_BODY G4_AVX2 __m256i g4_four_avx2(const int8_t *q) /* 4 inputs of one token, for every row */
{
    int32_t v;
    memcpy(&v, q, 4);
    return _mm256_set1_epi32(v);
}
G4_BODY G4_AVX2 __m256i g4_two_avx2(const int16_t *p) /* likewise 2 of 16 bits */
{
    return g4_four_avx2((const int8_t *)p);
}

G4_BODY G4_AVX2 int32_t g4_hsum_int_avx2(__m256i v)
{
    __m128i a = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    a = _mm_add_epi32(a, _mm_shuffle_epi32(a, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32(a, 0xb1)));
}

/* To the nearest, half to even; at most 32767 each way. */
G4_BODY G4_AVX2 __m256i g4_int32_avx2(__m256 x)
{
    const __m256 least = _mm256_set1_ps(-32767.0f), most = _mm256_set1_ps(32767.0f);
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(x, least), most));
}
G4_BODY G4_AVX2 __m256i g4_int16_avx2(__m256 a, __m256 b)
{
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(g4_int32_avx2(a), g4_int32_avx2(b)), 0xd8);
}

/* q4_0: unsigned nibbles x int8 in 16-bit lanes over a block of 32 (15 * 127 * 2 * 8 = 30480 fits), then pairs to 32
 * bits, less 8 * sum(q). 8 sums of 16 bits (4 tokens x 2 halves), 4 weights, mask and one broadcast fill the 16
 * registers; float sums rest in y. Bound: 2 multiplies + 2 adds per 64 products, four vector pipes. */
G4_BODY G4_AVX2 void g4_q4_tile_avx2(G4_TILE_ARGS_CONST, const g4_scale_type type)
{
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    const size_t steps = (size_t)x->steps;
    const int8_t *q = x->q + (size_t)t * 64 * steps;
    const float *d = x->d + (size_t)t * 2 * steps;
    const int32_t *sum = x->sum + (size_t)t * 2 * steps;
    for (int i = 0; i < n && s0 == 0; i++) g4_start_avx2(y + (size_t)i * y_stride);
    for (int s = s0; s < s1; s++)
        for (int b = 0; b < 2; b++) {
            const uint8_t *p = w + (size_t)s * 576;
            const uint8_t *run = p + 64 + 256 * b;
            if (n == 1) g4_ahead_avx2(p + 288 * b, 288);
            const size_t blk = 2 * (size_t)s + (size_t)b;
            __m256i a0[4], a1[4];
            for (int i = 0; i < n; i++) a0[i] = a1[i] = _mm256_setzero_si256();
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                const __m256i w0 = _mm256_load_si256((const __m256i *)(const void *)(run + 64 * r));
                const __m256i w1 = _mm256_load_si256((const __m256i *)(const void *)(run + 64 * r + 32));
                const __m256i l0 = _mm256_and_si256(w0, low), l1 = _mm256_and_si256(w1, low);
                const __m256i h0 = _mm256_and_si256(_mm256_srli_epi16(w0, 4), low),
                              h1 = _mm256_and_si256(_mm256_srli_epi16(w1, 4), low);
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) {
                    const __m256i v = g4_four_avx2(q + (size_t)i * 64 * steps + 32 * blk + 8 * (size_t)r);
                    a0[i] = _mm256_add_epi16(a0[i], _mm256_maddubs_epi16(l0, v));
                    a1[i] = _mm256_add_epi16(a1[i], _mm256_maddubs_epi16(l1, v));
                    G4_KEEP(a0[i]);
                    G4_KEEP(a1[i]);
                }
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) {
                    const __m256i v = g4_four_avx2(q + (size_t)i * 64 * steps + 32 * blk + 8 * (size_t)r + 4);
                    a0[i] = _mm256_add_epi16(a0[i], _mm256_maddubs_epi16(h0, v));
                    a1[i] = _mm256_add_epi16(a1[i], _mm256_maddubs_epi16(h1, v));
                    G4_KEEP(a0[i]);
                    G4_KEEP(a1[i]);
                }
            }
            const __m256 sw0 = g4_scales_avx2(p + 32 * b, type), sw1 = g4_scales_avx2(p + 32 * b + 16, type);
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                const __m256i off = _mm256_set1_epi32(8 * sum[(size_t)i * 2 * steps + blk]);
                const __m256 dx = _mm256_set1_ps(d[(size_t)i * 2 * steps + blk]);
                const __m256 f0 = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_madd_epi16(a0[i], ones), off));
                const __m256 f1 = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_madd_epi16(a1[i], ones), off));
                g4_add_block_avx2(y + (size_t)i * y_stride, sw0, sw1, dx, f0, f1);
            }
        }
}

/* q8_0: |w| x sign(x, w) gives pairs of at most 128 * 127 * 2 = 32512, widened to 32 bits after each product. */
G4_BODY G4_AVX2 void g4_q8_tile_avx2(G4_TILE_ARGS_CONST, const g4_scale_type type)
{
    const __m256i ones = _mm256_set1_epi16(1);
    const size_t steps = (size_t)x->steps;
    const int8_t *q = x->q + (size_t)t * 64 * steps;
    const float *d = x->d + (size_t)t * 2 * steps;
    for (int i = 0; i < n && s0 == 0; i++) g4_start_avx2(y + (size_t)i * y_stride);
    for (int s = s0; s < s1; s++)
        for (int b = 0; b < 2; b++) {
            const uint8_t *p = w + (size_t)s * 1088;
            const uint8_t *chunk = p + 64 + 512 * b;
            if (n == 1) g4_ahead_avx2(p + 544 * b, 544);
            const size_t blk = 2 * (size_t)s + (size_t)b;
            __m256i a0[4], a1[4];
            for (int i = 0; i < n; i++) a0[i] = a1[i] = _mm256_setzero_si256();
#pragma GCC unroll 8
            for (int c = 0; c < 8; c++) {
                const __m256i w0 = _mm256_load_si256((const __m256i *)(const void *)(chunk + 64 * c));
                const __m256i w1 = _mm256_load_si256((const __m256i *)(const void *)(chunk + 64 * c + 32));
                const __m256i m0 = _mm256_abs_epi8(w0), m1 = _mm256_abs_epi8(w1);
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) {
                    const __m256i v = g4_four_avx2(q + (size_t)i * 64 * steps + 32 * blk + 4 * (size_t)c);
                    a0[i] = _mm256_add_epi32(
                        a0[i], _mm256_madd_epi16(_mm256_maddubs_epi16(m0, _mm256_sign_epi8(v, w0)), ones));
                    a1[i] = _mm256_add_epi32(
                        a1[i], _mm256_madd_epi16(_mm256_maddubs_epi16(m1, _mm256_sign_epi8(v, w1)), ones));
                    G4_KEEP(a0[i]);
                    G4_KEEP(a1[i]);
                }
            }
            const __m256 sw0 = g4_scales_avx2(p + 32 * b, type), sw1 = g4_scales_avx2(p + 32 * b + 16, type);
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                const __m256 dx = _mm256_set1_ps(d[(size_t)i * 2 * steps + blk]);
                const __m256 f0 = _mm256_cvtepi32_ps(a0[i]), f1 = _mm256_cvtepi32_ps(a1[i]);
                g4_add_block_avx2(y + (size_t)i * y_stride, sw0, sw1, dx, f0, f1);
            }
        }
}

G4_GEMM_QUANT(g4_gemm_q4_few_avx2, G4_AVX2, 24, 4, g4_q4_tile_avx2)
G4_GEMM_QUANT(g4_gemm_q8_few_avx2, G4_AVX2, 12, 4, g4_q8_tile_avx2)

/* Many tokens. A panel is a strip of a group's weights in the form that the products read, made once for up to 64
 * tokens while the next strip is fetched, and what a strip of the tokens' inputs needs, made once for all groups. */
#define G4_PANEL_TOKENS 64
#define G4_PANEL_LEAST 12 /* tokens: fewer do not pay for it */
typedef struct {
    int blocks, block_bytes; /* of a strip at most; of a block of a group in the file */
    /* blocks [b0, b0 + n) of tokens [t0, t0 + tokens); the last token again where it does not end a tile of 4 */
    void (*inputs)(void *panel, const g4_acts *x, int t0, int tokens, int b0, int n);
    /* blocks [b0, b0 + n) of a group */
    void (*weights)(void *panel, const uint8_t *group, int b0, int n, g4_scale_type type);
    /* y of tokens [t, t + 4) of the panel += the strip; starts y when `first` */
    void (*tile)(float *const y[4], const void *panel, int t, int blocks, int first);
} g4_panel_ops;

static void g4_panel_walk_avx2(const g4_panel_ops *ops, void *panel, G4_GEMM_ARGS)
{
    const int blocks = 2 * w->steps, strips = (blocks + ops->blocks - 1) / ops->blocks;
    const int strip = (w->steps + strips - 1) / strips * 2; /* blocks: the strips about equal */
    float spare[16];                                        /* y of tokens a last tile does not have */
    for (int ta = t0, n; ta < t1; ta += n) {
        n = g4_min_int(G4_PANEL_TOKENS, t1 - ta);
        for (int b = 0; b < blocks; b += strip) {
            const int nb = g4_min_int(strip, blocks - b), bytes = nb * ops->block_bytes;
            ops->inputs(panel, x, ta, n, b, nb);
            for (int g = g0; g < g1; g++) {
                const uint8_t *group = w->data + (size_t)g * w->group_bytes;
                const char *next = (const char *)group + w->group_bytes + (size_t)(b * ops->block_bytes);
                ops->weights(panel, group, b, nb, w->scale_type);
                for (int t = 0; t < n; t += 4) {
                    for (int at = bytes * t / n; at < bytes * (t + 4) / n; at += 64)
                        _mm_prefetch(next + at, _MM_HINT_T0);
                    float *yt[4];
                    for (int i = 0; i < 4; i++)
                        yt[i] = t + i < n ? y + (size_t)(ta - t0 + t + i) * y_stride + (size_t)(g - g0) * 16 : spare;
                    ops->tile(yt, panel, t, nb, b == 0);
                }
            }
        }
    }
}

/* q8_0 for many tokens, by Winograd's inner product (1968). For each pair of inputs x and weights w
 *
 *     x0 w0 + x1 w1 = (x0 + w1)(x1 + w0) - x0 x1 - w0 w1
 *
 * so one multiplication serves two products, and what is taken off belongs to the token or to the row alone. 32
 * products cost two additions, vpmaddwd and the addition to the sum: of the four vector pipes only the multiplication
 * is choosy. |w| x sign(x, w) costs 4 operations too, but 3 of them share the two pipes that multiply. With the 3 that
 * end a block the bound is 29 products a cycle against 20.
 *
 * A pair is inputs 0, 1 or 2, 3 of a chunk of four: two shifts widen a chunk's even inputs into one vector of int16,
 * its odd ones into another. What a block sums to is below 2^22, so an addition to the bits of 1.5 * 2^23 makes it a
 * float with that offset, and one subtraction takes off the offset and the token's pairs, exactly: the bits are those
 * of the tiles above. */
#define G4_PANEL8_BLOCKS 16 /* 16 KB, half of L1 */
#define G4_PANEL_OFFSET 12582912.0f
#define G4_PANEL_OFFSET_BITS 0x4b400000

typedef struct {
    _Alignas(64) int16_t w[G4_PANEL8_BLOCKS][8][4][16]; /* (blocks, chunks, even and odd of rows 0-7, of rows 8-15) */
    int32_t start[G4_PANEL8_BLOCKS][16];                /* bits of the offset, less the row's pairs */
    float scale[G4_PANEL8_BLOCKS][16];
    int16_t x[G4_PANEL_TOKENS / 4][G4_PANEL8_BLOCKS][4][2][16]; /* (tiles, blocks, tokens, even and odd of 8 chunks) */
    float pairs[G4_PANEL8_BLOCKS][G4_PANEL_TOKENS];             /* the offset and the token's pairs */
    float d[G4_PANEL8_BLOCKS][G4_PANEL_TOKENS];
} g4_panel8;

/* Block b of a group of q8_0: its scales; its weights, [8 chunks][rows 0-7, 8-15]. */
G4_BODY const uint8_t *g4_q8_scales(const uint8_t *group, int b) { return group + b / 2 * 1088 + b % 2 * 32; }
G4_BODY const __m256i *g4_q8_weights(const uint8_t *group, int b)
{
    return (const __m256i *)(const void *)(group + b / 2 * 1088 + 64 + b % 2 * 512);
}

G4_BODY G4_AVX2 __m256i g4_even_avx2(__m256i v) { return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8); }
G4_BODY G4_AVX2 __m256i g4_odd_avx2(__m256i v) { return _mm256_srai_epi16(v, 8); }

G4_AVX2 static void g4_panel8_weights_avx2(void *panel, const uint8_t *group, int b0, int n, g4_scale_type type)
{
    g4_panel8 *p = panel;
    for (int b = 0; b < n; b++) {
        const uint8_t *scales = g4_q8_scales(group, b0 + b);
        const __m256i *in = g4_q8_weights(group, b0 + b);
        _mm256_store_ps(p->scale[b], g4_scales_avx2(scales, type));
        _mm256_store_ps(p->scale[b] + 8, g4_scales_avx2(scales + 16, type));
        for (int half = 0; half < 2; half++) {
            __m256i start = _mm256_set1_epi32(G4_PANEL_OFFSET_BITS);
            for (int c = 0; c < 8; c++) {
                const __m256i v = _mm256_load_si256(in + 2 * c + half);
                const __m256i even = g4_even_avx2(v), odd = g4_odd_avx2(v);
                _mm256_store_si256((__m256i *)(void *)p->w[b][c][2 * half], even);
                _mm256_store_si256((__m256i *)(void *)p->w[b][c][2 * half + 1], odd);
                start = _mm256_sub_epi32(start, _mm256_madd_epi16(even, odd));
            }
            _mm256_store_si256((__m256i *)(void *)(p->start[b] + 8 * half), start);
        }
    }
}

G4_AVX2 static void g4_panel8_inputs_avx2(void *panel, const g4_acts *x, int t0, int tokens, int b0, int n)
{
    g4_panel8 *p = panel;
    for (int t = 0; t < tokens; t += 4) {
        const __m256i *q[4];
        const float *d[4];
        for (int i = 0; i < 4; i++) {
            const size_t row = (size_t)(t0 + g4_min_int(t + i, tokens - 1)) * 2 * (size_t)x->steps + (size_t)b0;
            q[i] = (const __m256i *)(const void *)(x->q + 32 * row);
            d[i] = x->d + row;
        }
        for (int b = 0; b < n; b++) {
            __m256i *out = (__m256i *)(void *)p->x[t / 4][b], pairs[4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                const __m256i v = _mm256_loadu_si256(q[i] + b);
                const __m256i even = g4_even_avx2(v), odd = g4_odd_avx2(v);
                _mm256_store_si256(out + 2 * i, even);
                _mm256_store_si256(out + 2 * i + 1, odd);
                pairs[i] = _mm256_madd_epi16(even, odd);
            }
            const __m256i halves = _mm256_hadd_epi32(_mm256_hadd_epi32(pairs[0], pairs[1]),
                                                     _mm256_hadd_epi32(pairs[2], pairs[3]));
            const __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
            _mm_store_ps(p->pairs[b] + t, _mm_add_ps(_mm_cvtepi32_ps(sums), _mm_set1_ps(G4_PANEL_OFFSET)));
            _mm_store_ps(p->d[b] + t, _mm_setr_ps(d[0][b], d[1][b], d[2][b], d[3][b]));
        }
    }
}

/* Pairs of two inputs x0, x1 and two weights w0, w1: sum += (x0 + w1)(x1 + w0). In assembly the sum stays in its
 * register: gcc would add elsewhere and copy it back, and loops of this wait for instructions to be decoded. */
G4_BODY G4_AVX2 void g4_cross_avx2(__m256i *sum, __m256i x0, __m256i x1, __m256i w0, __m256i w1)
{
    const __m256i m = _mm256_madd_epi16(_mm256_add_epi16(x0, w1), _mm256_add_epi16(x1, w0));
    __asm__("vpaddd {%1, %0, %0|%0, %0, %1}" : "+x"(*sum) : "x"(m));
}

/* A block of 16 rows for 4 tokens, each the even inputs of 8 chunks, then the odd ones. a0 and a1 take the sums of rows
 * 0-7 and 8-15. */
G4_BODY G4_AVX2 void g4_panel_block_avx2(__m256i a0[4], __m256i a1[4], const int16_t *weights,
                                         const int16_t *const x[4])
{
    const __m256i *w = (const __m256i *)(const void *)weights;
#pragma GCC unroll 8
    for (int c = 0; c < 8; c++) {
        const __m256i even0 = _mm256_load_si256(w + 4 * c), odd0 = _mm256_load_si256(w + 4 * c + 1);
        const __m256i even1 = _mm256_load_si256(w + 4 * c + 2), odd1 = _mm256_load_si256(w + 4 * c + 3);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const __m256i even = g4_two_avx2(x[i] + 2 * c), odd = g4_two_avx2(x[i] + 16 + 2 * c);
            g4_cross_avx2(&a0[i], even, odd, even0, odd0);
            g4_cross_avx2(&a1[i], even, odd, even1, odd1);
        }
    }
}

G4_AVX2 static void g4_panel8_tile_avx2(float *const y[4], const void *panel, int t, int blocks, int first)
{
    const g4_panel8 *p = panel;
    for (int i = 0; i < 4 && first; i++) g4_start_avx2(y[i]);
    for (int b = 0; b < blocks; b++) {
        const __m256i *start = (const __m256i *)(const void *)p->start[b];
        __m256i a0[4], a1[4];
        a0[0] = a0[1] = a0[2] = a0[3] = _mm256_load_si256(start);
        a1[0] = a1[1] = a1[2] = a1[3] = _mm256_load_si256(start + 1);
        const int16_t(*x)[2][16] = p->x[t / 4][b];
        const int16_t *const rows[] = { x[0][0], x[1][0], x[2][0], x[3][0] };
        g4_panel_block_avx2(a0, a1, p->w[b][0][0], rows);
        const __m256 sw0 = _mm256_load_ps(p->scale[b]), sw1 = _mm256_load_ps(p->scale[b] + 8);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const __m256 dx = _mm256_broadcast_ss(p->d[b] + t + i), pairs = _mm256_broadcast_ss(p->pairs[b] + t + i);
            const __m256 f0 = _mm256_sub_ps(_mm256_castsi256_ps(a0[i]), pairs);
            const __m256 f1 = _mm256_sub_ps(_mm256_castsi256_ps(a1[i]), pairs);
            g4_add_block_avx2(y[i], sw0, sw1, dx, f0, f1);
        }
    }
}

G4_AVX2 static void g4_gemm_q8_avx2(G4_GEMM_ARGS)
{
    static const g4_panel_ops ops = { G4_PANEL8_BLOCKS, 544, g4_panel8_inputs_avx2, g4_panel8_weights_avx2,
                                      g4_panel8_tile_avx2 };
    g4_panel8 p;
    if (t1 - t0 < G4_PANEL_LEAST) g4_gemm_q8_few_avx2(y, y_stride, w, x, t0, t1, g0, g1);
    else g4_panel_walk_avx2(&ops, &p, y, y_stride, w, x, t0, t1, g0, g1);
}

/* q4_0 for many tokens: a strip's nibbles become bytes and its scales floats once. What a block sums to, 8 * 127 * 32
 * at most, fits in 16 bits, so both sums of a row may wrap: they start at 0 and -8 * sum(q), and a shift adds the lower
 * one to the upper one. vpmaddwd would do it in fewer operations, but of the pipes that multiply. */
#define G4_PANEL4_BLOCKS 16 /* 8 KB */
typedef struct {
    _Alignas(64) uint8_t w[G4_PANEL4_BLOCKS][8][2][32]; /* (blocks, chunks, rows 0-7 and 8-15) */
    float scale[G4_PANEL4_BLOCKS][16];
    const int8_t *q[G4_PANEL_TOKENS]; /* the strip of each token's inputs ... */
    const float *d[G4_PANEL_TOKENS];  /* ... and of their scales */
    int32_t start[G4_PANEL_TOKENS][G4_PANEL4_BLOCKS];
} g4_panel4;

G4_AVX2 static void g4_panel4_weights_avx2(void *panel, const uint8_t *group, int b0, int n, g4_scale_type type)
{
    g4_panel4 *p = panel;
    const __m256i low = _mm256_set1_epi8(15);
    for (int b = 0; b < n; b++) {
        const uint8_t *step = group + (b0 + b) / 2 * 576, *scales = step + (b0 + b) % 2 * 32;
        const __m256i *in = (const __m256i *)(const void *)(step + 64 + (b0 + b) % 2 * 256);
        __m256i *out = (__m256i *)(void *)p->w[b];
        _mm256_store_ps(p->scale[b], g4_scales_avx2(scales, type));
        _mm256_store_ps(p->scale[b] + 8, g4_scales_avx2(scales + 16, type));
        for (int r = 0; r < 4; r++, in += 2, out += 4) { /* two chunks */
            const __m256i w0 = _mm256_load_si256(in), w1 = _mm256_load_si256(in + 1);
            _mm256_store_si256(out, _mm256_and_si256(w0, low));
            _mm256_store_si256(out + 1, _mm256_and_si256(w1, low));
            _mm256_store_si256(out + 2, _mm256_and_si256(_mm256_srli_epi16(w0, 4), low));
            _mm256_store_si256(out + 3, _mm256_and_si256(_mm256_srli_epi16(w1, 4), low));
        }
    }
}

G4_AVX2 static void g4_panel4_inputs_avx2(void *panel, const g4_acts *x, int t0, int tokens, int b0, int n)
{
    g4_panel4 *p = panel;
    for (int t = 0; t < (tokens + 3) / 4 * 4; t++) {
        const size_t row = (size_t)(t0 + g4_min_int(t, tokens - 1)) * 2 * (size_t)x->steps + (size_t)b0;
        p->q[t] = x->q + 32 * row;
        p->d[t] = x->d + row;
        for (int b = 0; b < n; b++) p->start[t][b] = x->sum[row + (size_t)b] * -8 * 65536;
    }
}

G4_BODY G4_AVX2 __m256 g4_halves_avx2(__m256i v) /* the upper 16 bits of v + (v << 16), signed */
{
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_add_epi32(v, _mm256_slli_epi32(v, 16)), 16));
}

G4_AVX2 static void g4_panel4_tile_avx2(float *const y[4], const void *panel, int t, int blocks, int first)
{
    const g4_panel4 *p = panel;
    const int8_t *const q[] = { p->q[t], p->q[t + 1], p->q[t + 2], p->q[t + 3] };
    const float *const d[] = { p->d[t], p->d[t + 1], p->d[t + 2], p->d[t + 3] };
    for (int i = 0; i < 4 && first; i++) g4_start_avx2(y[i]);
    for (int b = 0; b < blocks; b++) {
        const __m256i *w = (const __m256i *)(const void *)p->w[b];
        __m256i a0[4], a1[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) a0[i] = a1[i] = _mm256_set1_epi32(p->start[t + i][b]);
#pragma GCC unroll 8
        for (int c = 0; c < 8; c++) {
            const __m256i w0 = _mm256_load_si256(w + 2 * c), w1 = _mm256_load_si256(w + 2 * c + 1);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                const __m256i v = g4_four_avx2(q[i] + 32 * b + 4 * c);
                a0[i] = _mm256_add_epi16(a0[i], _mm256_maddubs_epi16(w0, v));
                a1[i] = _mm256_add_epi16(a1[i], _mm256_maddubs_epi16(w1, v));
                G4_KEEP(a0[i]);
                G4_KEEP(a1[i]);
            }
        }
        const __m256 sw0 = _mm256_load_ps(p->scale[b]), sw1 = _mm256_load_ps(p->scale[b] + 8);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const __m256 dx = _mm256_broadcast_ss(d[i] + b);
            const __m256 f0 = g4_halves_avx2(a0[i]), f1 = g4_halves_avx2(a1[i]);
            g4_add_block_avx2(y[i], sw0, sw1, dx, f0, f1);
        }
    }
}
G4_AVX2 static void g4_gemm_q4_avx2(G4_GEMM_ARGS)
{
    static const g4_panel_ops ops = { G4_PANEL4_BLOCKS, 288, g4_panel4_inputs_avx2, g4_panel4_weights_avx2,
                                      g4_panel4_tile_avx2 };
    g4_panel4 p;
    if (t1 - t0 < G4_PANEL_LEAST) g4_gemm_q4_few_avx2(y, y_stride, w, x, t0, t1, g0, g1);
    else g4_panel_walk_avx2(&ops, &p, y, y_stride, w, x, t0, t1, g0, g1);
}

/* Weights and inputs of 16 bits (g4_product16_fn), by the same identity, with integer sums over all columns of a strip,
 * which wait in y for the next strip. An input plus a weight fits in 16 bits; everything else may wrap, because what is
 * left at the end does not. */
#define G4_PANEL16_BLOCKS 24 /* of a strip at most: 24 KB */
#define G4_PANEL16_GROUPS 16 /* whose strips take turns: their y, 64 KB, stays in L2 */
typedef struct {
    _Alignas(64) int16_t w[G4_PANEL16_BLOCKS][8][4][16];                /* as in g4_panel8 */
    int32_t start[16];                                                  /* less the row's pairs of the strip */
    int32_t pairs[G4_PANEL_TOKENS];                                     /* of all columns of a token */
    float unit[G4_PANEL16_GROUPS][16], per_unit[G4_PANEL16_GROUPS][16]; /* of the rows, and 128 / unit */
    float spare[16];                                                    /* y of tokens a last tile does not have */
    float least, most;                                                  /* of what y may be in the end */
} g4_panel16;

G4_BODY G4_AVX2 void g4_panel16_units_avx2(float *unit, float *per_unit, const uint8_t *group, int blocks,
                                           const g4_scale_type type)
{
    __m256 squares[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };
    for (int b = 0; b < blocks; b++)
        for (int half = 0; half < 2; half++) {
            const __m256 s = g4_scales_avx2(g4_q8_scales(group, b) + 16 * half, type);
            squares[half] = _mm256_add_ps(squares[half], _mm256_mul_ps(s, s));
        }
    for (int half = 0; half < 2; half++) {
        const __m256 norm = _mm256_mul_ps(_mm256_sqrt_ps(squares[half]), _mm256_set1_ps(G4_ROOT_PRODUCT16));
        const __m256 u = _mm256_max_ps(norm, _mm256_set1_ps(FLT_MIN));
        _mm256_storeu_ps(unit + 8 * half, u);
        _mm256_storeu_ps(per_unit + 8 * half, _mm256_div_ps(_mm256_set1_ps(128.0f), u));
    }
}

/* Blocks [b0, b0 + n) of one group. (256 q * m + 2^14) >> 15 is what vpmulhrsw computes. */
G4_BODY G4_AVX2 void g4_panel16_weights_avx2(g4_panel16 *p, const uint8_t *group, const float *per_unit, int b0, int n,
                                             const g4_scale_type type)
{
    const __m256i high = _mm256_set1_epi16(-256);
    for (int half = 0; half < 2; half++) {
        __m256i start = _mm256_setzero_si256();
        for (int b = 0; b < n; b++) {
            const uint8_t *scales = g4_q8_scales(group, b0 + b) + 16 * half;
            const __m256i *in = g4_q8_weights(group, b0 + b);
            const __m256 s = _mm256_mul_ps(g4_scales_avx2(scales, type), _mm256_loadu_ps(per_unit + 8 * half));
            const __m256i once = g4_int32_avx2(s);
            const __m256i m = _mm256_blend_epi16(once, _mm256_slli_epi32(once, 16), 0xaa); /* for two inputs */
            for (int c = 0; c < 8; c++) {
                const __m256i v = _mm256_load_si256(in + 2 * c + half);
                const __m256i even = _mm256_mulhrs_epi16(_mm256_slli_epi16(v, 8), m);
                const __m256i odd = _mm256_mulhrs_epi16(_mm256_and_si256(v, high), m);
                _mm256_store_si256((__m256i *)(void *)p->w[b][c][2 * half], even);
                _mm256_store_si256((__m256i *)(void *)p->w[b][c][2 * half + 1], odd);
                start = _mm256_sub_epi32(start, _mm256_madd_epi16(even, odd));
            }
        }
        _mm256_storeu_si256((__m256i *)(void *)(p->start + 8 * half), start);
    }
}

/* Sum of the products of an even and its odd input, of one token. */
G4_BODY G4_AVX2 int32_t g4_pairs16_avx2(const int16_t *x, int blocks)
{
    __m256i pairs = _mm256_setzero_si256();
    for (int b = 0; b < blocks; b++, x += 32)
        pairs = _mm256_add_epi32(pairs, _mm256_madd_epi16(_mm256_loadu_si256((const __m256i *)(const void *)x),
                                                          _mm256_loadu_si256((const __m256i *)(const void *)(x + 16))));
    return g4_hsum_int_avx2(pairs);
}

/* y of 4 tokens += the strip, as integers; starts y where there are `pairs`, makes it numbers where there is `unit`. */
G4_AVX2 static void g4_panel16_tile_avx2(float *const y[4], const g4_panel16 *p, const int16_t *const rows[4],
                                         int blocks, const int32_t *pairs, const float *unit, const float x_unit[4])
{
    const __m256i *start = (const __m256i *)(const void *)p->start;
    const int16_t *x[4] = { rows[0], rows[1], rows[2], rows[3] };
    __m256i a0[4], a1[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m256i *yi = (const __m256i *)(const void *)y[i];
        const __m256i first = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_set1_epi32(pairs ? pairs[i] : 0));
        a0[i] = _mm256_add_epi32(_mm256_loadu_si256(start), pairs ? first : _mm256_loadu_si256(yi));
        a1[i] = _mm256_add_epi32(_mm256_loadu_si256(start + 1), pairs ? first : _mm256_loadu_si256(yi + 1));
    }
    for (int b = 0; b < blocks; b++) {
        g4_panel_block_avx2(a0, a1, p->w[b][0][0], x);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) x[i] += 32;
    }
    const __m256 least = _mm256_set1_ps(p->least), most = _mm256_set1_ps(p->most);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        if (unit) {
            const __m256 u = _mm256_set1_ps(x_unit[i]);
            const __m256 u0 = _mm256_mul_ps(_mm256_loadu_ps(unit), u), u1 = _mm256_mul_ps(_mm256_loadu_ps(unit + 8), u);
            const __m256 y0 = _mm256_mul_ps(_mm256_cvtepi32_ps(a0[i]), u0); /* NaN stays below */
            const __m256 y1 = _mm256_mul_ps(_mm256_cvtepi32_ps(a1[i]), u1);
            _mm256_storeu_ps(y[i], _mm256_min_ps(most, _mm256_max_ps(least, y0)));
            _mm256_storeu_ps(y[i] + 8, _mm256_min_ps(most, _mm256_max_ps(least, y1)));
        } else {
            _mm256_storeu_si256((__m256i *)(void *)y[i], a0[i]);
            _mm256_storeu_si256((__m256i *)(void *)(y[i] + 8), a1[i]);
        }
    }
}

/* Blocks [b, b + nb) of group g for n tokens. */
G4_BODY G4_AVX2 void g4_panel16_strip_avx2(g4_panel16 *p, float *y, size_t y_stride, const g4_matrix *w,
                                           const int16_t *x, const float *x_unit, int n, int g, int b, int nb,
                                           const g4_scale_type type)
{
    const int blocks = 2 * w->steps, nth = g % G4_PANEL16_GROUPS;
    const uint8_t *group = w->data + (size_t)g * w->group_bytes;
    const char *next = (const char *)group + w->group_bytes + (size_t)b * 544;
    if (b == 0) g4_panel16_units_avx2(p->unit[nth], p->per_unit[nth], group, blocks, type);
    g4_panel16_weights_avx2(p, group, p->per_unit[nth], b, nb, type);
    const int ahead = nb * 544 / (64 * ((n + 3) / 4)) + 1; /* lines of the next group for each tile */
    for (int t = 0; t < n; t += 4) {
        for (int i = 0; i < ahead; i++) _mm_prefetch(next + 64 * (ahead * t / 4 + i), _MM_HINT_T0);
        const int16_t *rows[4];
        float *yt[4], unit[4];
        int32_t pairs[4];
        for (int i = 0; i < 4; i++) {
            const size_t token = (size_t)g4_min_int(t + i, n - 1);
            rows[i] = x + 32 * (token * (size_t)blocks + (size_t)b);
            unit[i] = x_unit[token];
            pairs[i] = p->pairs[token];
            yt[i] = t + i < n ? y + token * y_stride + 16 * (size_t)g : p->spare;
        }
        g4_panel16_tile_avx2(yt, p, rows, nb, b == 0 ? pairs : NULL, b + nb == blocks ? p->unit[nth] : NULL, unit);
    }
}

G4_BODY G4_AVX2 void g4_panel16_walk_avx2(float *y, size_t y_stride, const g4_matrix *w, const int16_t *x,
                                          const float *x_unit, int n, float least, float most, const g4_scale_type type)
{
    const int blocks = 2 * w->steps, strips = (blocks + G4_PANEL16_BLOCKS - 1) / G4_PANEL16_BLOCKS;
    const int strip = (w->steps + strips - 1) / strips * 2; /* blocks: the strips about equal */
    g4_panel16 p;
    p.least = least;
    p.most = most;
    memset(p.spare, 0, sizeof p.spare);
    for (int k; n > 0; n -= k, y += (size_t)k * y_stride, x += 32 * (size_t)k * (size_t)blocks, x_unit += k) {
        k = g4_min_int(n, G4_PANEL_TOKENS);
        for (int t = 0; t < k; t++) p.pairs[t] = g4_pairs16_avx2(x + 32 * (size_t)t * (size_t)blocks, blocks);
        for (int set = 0; set < w->groups; set += G4_PANEL16_GROUPS)
            for (int b = 0; b < blocks; b += strip)
                for (int g = set; g < g4_min_int(set + G4_PANEL16_GROUPS, w->groups); g++)
                    g4_panel16_strip_avx2(&p, y, y_stride, w, x, x_unit, k, g, b, g4_min_int(strip, blocks - b), type);
    }
}
G4_AVX2 static void g4_product16_avx2(float *y, size_t y_stride, const g4_matrix *w, const int16_t *x,
                                      const float *x_unit, int n, float least, float most)
{
    if (w->scale_type == G4_SCALE_F16)
        g4_panel16_walk_avx2(y, y_stride, w, x, x_unit, n, least, most, G4_SCALE_F16);
    else
        g4_panel16_walk_avx2(y, y_stride, w, x, x_unit, n, least, most, G4_SCALE_BF16);
}

/* f32 and bf16: one chain of fused multiply-adds per row and token, columns in order; 4 tokens x 16 rows keep both
 * units busy. */
G4_BODY G4_AVX2 void g4_float_tile_avx2(G4_TILE_ARGS_CONST, const g4_type type)
{
    const float *xt = x->x + (size_t)t * x->x_stride;
    __m256 a0[4], a1[4];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        a0[i] = s0 == 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(y + (size_t)i * y_stride);
        a1[i] = s0 == 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(y + (size_t)i * y_stride + 8);
    }
    for (size_t c = 64 * (size_t)s0; c < 64 * (size_t)s1; c += 2) {
        __m256 even0, even1, odd0, odd1;
        if (type == G4_TYPE_F32) {
            const float *p = (const float *)(const void *)w + 16 * c;
            even0 = _mm256_load_ps(p), even1 = _mm256_load_ps(p + 8), odd0 = _mm256_load_ps(p + 16),
            odd1 = _mm256_load_ps(p + 24);
        } else {
            const __m256i high = _mm256_set1_epi32((int)0xffff0000u);
            const __m256i w0 = _mm256_load_si256((const __m256i *)(const void *)(w + 32 * c));
            const __m256i w1 = _mm256_load_si256((const __m256i *)(const void *)(w + 32 * c + 32));
            even0 = _mm256_castsi256_ps(_mm256_slli_epi32(w0, 16)),
            even1 = _mm256_castsi256_ps(_mm256_slli_epi32(w1, 16));
            odd0 = _mm256_castsi256_ps(_mm256_and_si256(w0, high)),
            odd1 = _mm256_castsi256_ps(_mm256_and_si256(w1, high));
        }
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            const __m256 v = _mm256_broadcast_ss(xt + (size_t)i * x->x_stride + c);
            a0[i] = _mm256_fmadd_ps(even0, v, a0[i]);
            a1[i] = _mm256_fmadd_ps(even1, v, a1[i]);
            G4_KEEP(a0[i]);
            G4_KEEP(a1[i]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            const __m256 v = _mm256_broadcast_ss(xt + (size_t)i * x->x_stride + c + 1);
            a0[i] = _mm256_fmadd_ps(odd0, v, a0[i]);
            a1[i] = _mm256_fmadd_ps(odd1, v, a1[i]);
            G4_KEEP(a0[i]);
            G4_KEEP(a1[i]);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        _mm256_storeu_ps(y + (size_t)i * y_stride, a0[i]);
        _mm256_storeu_ps(y + (size_t)i * y_stride + 8, a1[i]);
    }
}
G4_GEMM_FLOAT(g4_gemm_f32_avx2, G4_AVX2, 3, 4, g4_float_tile_avx2, G4_TYPE_F32)
G4_GEMM_FLOAT(g4_gemm_bf16_avx2, G4_AVX2, 6, 4, g4_float_tile_avx2, G4_TYPE_BF16)

G4_BODY G4_AVX2 float g4_hmax_avx2(__m256 v)
{
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}
G4_BODY G4_AVX2 float g4_hsum_avx2(__m256 v)
{
    __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}

G4_AVX2 static void g4_quantize_avx2(int8_t *q, float *d, int32_t *sum, const float *x, int cols)
{
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* undoes the lane order of the packs */
    for (int b = 0; b < cols / 32; b++, x += 32, q += 32) {
        const __m256 x0 = _mm256_loadu_ps(x), x1 = _mm256_loadu_ps(x + 8), x2 = _mm256_loadu_ps(x + 16),
                     x3 = _mm256_loadu_ps(x + 24);
        const float most =
            g4_hmax_avx2(_mm256_max_ps(_mm256_max_ps(_mm256_and_ps(x0, magnitude), _mm256_and_ps(x1, magnitude)),
                                       _mm256_max_ps(_mm256_and_ps(x2, magnitude), _mm256_and_ps(x3, magnitude))));
        d[b] = most / 127.0f;
        if (!(most >= G4_QUANT_LEAST && most <= FLT_MAX)) {
            if (most < G4_QUANT_LEAST) d[b] = 0.0f;
            sum[b] = 0;
            memset(q, 0, 32);
            continue;
        }
        const __m256 inverse = _mm256_set1_ps(127.0f / most);
        const __m256i i0 = _mm256_cvtps_epi32(_mm256_mul_ps(x0, inverse)),
                      i1 = _mm256_cvtps_epi32(_mm256_mul_ps(x1, inverse));
        const __m256i i2 = _mm256_cvtps_epi32(_mm256_mul_ps(x2, inverse)),
                      i3 = _mm256_cvtps_epi32(_mm256_mul_ps(x3, inverse));
        const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(i0, i1), _mm256_packs_epi32(i2, i3));
        _mm256_storeu_si256((__m256i *)(void *)q, _mm256_permutevar8x32_epi32(packed, order));
        const __m256i s8 = _mm256_add_epi32(_mm256_add_epi32(i0, i1), _mm256_add_epi32(i2, i3));
        sum[b] = g4_hsum_int_avx2(s8);
    }
}

G4_AVX2 static void g4_quantize16_avx2(int16_t *q, float *unit, const float *x, int cols)
{
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 part0 = _mm256_setzero_ps(), part1 = part0, top = part0;
    for (int i = 0; i < cols; i += 16) {
        const __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + 8);
        part0 = _mm256_add_ps(part0, _mm256_mul_ps(a, a));
        part1 = _mm256_add_ps(part1, _mm256_mul_ps(b, b));
        top = _mm256_max_ps(_mm256_and_ps(b, magnitude), _mm256_max_ps(_mm256_and_ps(a, magnitude), top));
    }
    const float norm = sqrtf(g4_hsum_avx2(_mm256_add_ps(part0, part1)));
    *unit = fmaxf(fmaxf(norm / G4_NORM_PRODUCT16, g4_hmax_avx2(top) / (float)G4_MOST16), FLT_MIN);
    const __m256 by = _mm256_set1_ps(1.0f / *unit);
    for (int b = 0; b < cols; b += 32) {
        __m256i even[2], odd[2];
        for (int half = 0; half < 2; half++) {
            const float *p = x + b + 16 * half;
            const __m256i v =
                g4_int16_avx2(_mm256_mul_ps(_mm256_loadu_ps(p), by), _mm256_mul_ps(_mm256_loadu_ps(p + 8), by));
            even[half] = _mm256_srai_epi32(_mm256_slli_epi32(v, 16), 16);
            odd[half] = _mm256_srai_epi32(v, 16);
        }
        __m256i *out = (__m256i *)(void *)(q + b);
        _mm256_storeu_si256(out, _mm256_permute4x64_epi64(_mm256_packs_epi32(even[0], even[1]), 0xd8));
        _mm256_storeu_si256(out + 1, _mm256_permute4x64_epi64(_mm256_packs_epi32(odd[0], odd[1]), 0xd8));
    }
}

/* e^x for x <= 88: 2^n * p(r), n = rint(x / ln 2), r = x - n ln 2, p = 1 + r + r^2 (..) of degree 6 with the least
 * relative error. Error below 2^-23 for |x| <= 20 and 2^-21 anywhere; 1 at 0; 0 below -87.33, also for -infinity. */
G4_BODY G4_AVX2 __m256 g4_exp_avx2(__m256 x)
{
    const __m256 keep = _mm256_cmp_ps(x, _mm256_set1_ps(-87.33f), _CMP_NLT_UQ); /* NaN stays */
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341f)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693147180559945309f), x);
    __m256 p = _mm256_set1_ps(1.3814583654e-3f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3687240258e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1668388993e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666521132e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.9999994040e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_and_ps(keep, _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent)));
}

/* Eight cached numbers from element `at` on, times scale for q8_0. */
G4_BODY G4_AVX2 __m256 g4_widen_avx2(const void *data, size_t at, const g4_kv_type type, __m256 scale)
{
    if (type == G4_KV_F16)
        return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)((const uint16_t *)data + at)));
    if (type == G4_KV_F32) return _mm256_loadu_ps((const float *)data + at);
    const __m128i b = _mm_loadl_epi64((const __m128i *)(const void *)((const int8_t *)data + at));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)), scale);
}

/* Attention: 6 queries x 16 positions, or 6 queries x 16 dims, keep 12 sums in registers. Keys and values come from a
 * strip (float32, `strip` NULL), or from the tile and are kept in a strip. */
G4_BODY G4_AVX2 void g4_scores_body_avx2(float *s, const float *const *q, int d0, const void *k, size_t k_stride,
                                         const g4_kv_type type, const float *scale, float *strip, int dims, const int n,
                                         g4_fetch fetch)
{
    const __m256 s0 = type == G4_KV_Q8_0 ? _mm256_loadu_ps(scale) : _mm256_setzero_ps();
    const __m256 s1 = type == G4_KV_Q8_0 ? _mm256_loadu_ps(scale + 8) : _mm256_setzero_ps();
    __m256 a0[6], a1[6];
    const float *qp[6];
#pragma GCC unroll 6
    for (int i = 0; i < n; i++) {
        a0[i] = d0 ? _mm256_load_ps(s + i * G4_PAGE) : _mm256_setzero_ps();
        a1[i] = d0 ? _mm256_load_ps(s + i * G4_PAGE + 8) : _mm256_setzero_ps();
        qp[i] = q[i] + d0;
    }
    size_t at = 0;
    for (int c = 0; c < dims; c++, at += k_stride, fetch.at += fetch.step) {
        __builtin_prefetch(fetch.at);
        const __m256 k0 = g4_widen_avx2(k, at, type, s0), k1 = g4_widen_avx2(k, at + 8, type, s1);
        if (strip) _mm256_store_ps(strip + 16 * c, k0), _mm256_store_ps(strip + 16 * c + 8, k1);
#pragma GCC unroll 6
        for (int i = 0; i < n; i++) {
            const __m256 v = _mm256_broadcast_ss(qp[i] + c);
            a0[i] = _mm256_fmadd_ps(k0, v, a0[i]);
            a1[i] = _mm256_fmadd_ps(k1, v, a1[i]);
            G4_KEEP(a0[i]);
            G4_KEEP(a1[i]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < n; i++) _mm256_store_ps(s + i * G4_PAGE, a0[i]), _mm256_store_ps(s + i * G4_PAGE + 8, a1[i]);
}
G4_BODY G4_AVX2 void g4_values_body_avx2(float *const *o, int d0, const float *alpha, const float *p, const void *v,
                                         size_t v_stride, const g4_kv_type type, const float *scales, float *strip,
                                         int j0, int j1, const int n, g4_fetch fetch)
{
    __m256 a0[6], a1[6];
#pragma GCC unroll 6
    for (int i = 0; i < n; i++) {
        const __m256 scale = _mm256_broadcast_ss(alpha + i);
        a0[i] = _mm256_mul_ps(_mm256_loadu_ps(o[i] + d0), scale),
        a1[i] = _mm256_mul_ps(_mm256_loadu_ps(o[i] + d0 + 8), scale);
    }
    size_t at = (size_t)j0 * v_stride;
    for (int j = j0; j < j1; j++, at += v_stride, fetch.at += fetch.step) {
        __builtin_prefetch(fetch.at);
        const __m256 scale = type == G4_KV_Q8_0 ? _mm256_broadcast_ss(scales + j) : _mm256_setzero_ps();
        const __m256 v0 = g4_widen_avx2(v, at, type, scale), v1 = g4_widen_avx2(v, at + 8, type, scale);
        if (strip) {
            _mm256_store_ps(strip + G4_STRIP_WIDTH * j, v0);
            _mm256_store_ps(strip + G4_STRIP_WIDTH * j + 8, v1);
        }
#pragma GCC unroll 6
        for (int i = 0; i < n; i++) {
            const __m256 w = _mm256_broadcast_ss(p + i * G4_PAGE + j);
            a0[i] = _mm256_fmadd_ps(v0, w, a0[i]);
            a1[i] = _mm256_fmadd_ps(v1, w, a1[i]);
            G4_KEEP(a0[i]);
            G4_KEEP(a1[i]);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < n; i++) _mm256_storeu_ps(o[i] + d0, a0[i]), _mm256_storeu_ps(o[i] + d0 + 8, a1[i]);
}
G4_WIDENING(avx2, G4_AVX2, 6)

G4_BODY G4_AVX2 void g4_widen_rows_avx2(float *out, const g4_kv_tile *tile, const g4_kv_type type, int head_dim, int d0,
                                        int width, int j0, int j1)
{
    __m256 scale = _mm256_setzero_ps();
    for (int j = j0; j < j1; j++) {
        float *row = out + G4_STRIP_WIDTH * j;
        const size_t at = (size_t)j * (size_t)head_dim + (size_t)d0;
        if (type == G4_KV_Q8_0) scale = _mm256_broadcast_ss(tile->v_scale + j);
        if (width == G4_STRIP_WIDTH) {
#pragma GCC unroll 4
            for (int c = 0; c < G4_STRIP_WIDTH; c += 8)
                _mm256_store_ps(row + c, g4_widen_avx2(tile->v, at + (size_t)c, type, scale));
            continue;
        }
        int c = 0;
        for (; c + 8 <= width; c += 8) _mm256_store_ps(row + c, g4_widen_avx2(tile->v, at + (size_t)c, type, scale));
        for (; c < width; c++)
            row[c] = type == G4_KV_F32   ? ((const float *)tile->v)[at + (size_t)c]
                     : type == G4_KV_F16 ? _cvtsh_ss(((const uint16_t *)tile->v)[at + (size_t)c])
                                         : (float)((const int8_t *)tile->v)[at + (size_t)c] * tile->v_scale[j];
        for (; c < G4_STRIP_WIDTH; c++) row[c] = 0.0f;
    }
}
G4_AVX2 static void g4_widen_values_avx2(float *out, const g4_kv_tile *tile, g4_kv_type type, int head_dim, int d0,
                                         int width, int j0, int j1)
{
    if (type == G4_KV_F16) g4_widen_rows_avx2(out, tile, G4_KV_F16, head_dim, d0, width, j0, j1);
    else if (type == G4_KV_F32) g4_widen_rows_avx2(out, tile, G4_KV_F32, head_dim, d0, width, j0, j1);
    else g4_widen_rows_avx2(out, tile, G4_KV_Q8_0, head_dim, d0, width, j0, j1);
}

/* The largest score of a row of 64. */
G4_BODY G4_AVX2 float g4_row_top_avx2(const float *row)
{
    __m256 top = _mm256_load_ps(row);
    for (int j = 8; j < G4_PAGE; j += 8) top = _mm256_max_ps(top, _mm256_load_ps(row + j));
    return g4_hmax_avx2(top);
}
/* Scores of a row of 64 to e^(score - top); returns their sum. */
G4_BODY G4_AVX2 float g4_row_exp_avx2(float *row, float top)
{
    const __m256 tops = _mm256_set1_ps(top);
    __m256 sum = _mm256_setzero_ps();
    for (const float *end = row + G4_PAGE; row < end; row += 8) {
        const __m256 p = g4_exp_avx2(_mm256_sub_ps(_mm256_load_ps(row), tops));
        _mm256_store_ps(row, p);
        sum = _mm256_add_ps(sum, p);
    }
    return g4_hsum_avx2(sum);
}

G4_AVX2 static void g4_softmax_avx2(float *s, int n, const int *lo, const int *hi, float *m, float *l, float *alpha)
{
    for (int i = 0; i < n; i++) {
        float *row = s + i * G4_PAGE;
        for (int j = 0; j < lo[i]; j++) row[j] = -INFINITY;
        for (int j = hi[i]; j < G4_PAGE; j++) row[j] = -INFINITY;
        const float m0 = m[i], max = g4_row_top_avx2(row);
        m[i] = max > m0 ? max : m0;
        alpha[i] = m0 - m[i];
    }
    for (int i = n; i % 8; i++) alpha[i] = 0;
    for (int i = 0; i < n; i += 8) _mm256_storeu_ps(alpha + i, g4_exp_avx2(_mm256_loadu_ps(alpha + i)));
    for (int i = 0; i < n; i++) l[i] = l[i] * alpha[i] + g4_row_exp_avx2(s + i * G4_PAGE, m[i]);
}

G4_ATTEND(avx2, G4_AVX2, 6, G4_WIDENS(avx2), NULL, g4_widen_values_avx2, g4_softmax_avx2)

G4_AVX2 static void g4_round16_avx2(int16_t *y, const float *x, float inverse, int n)
{
    const __m256 by = _mm256_set1_ps(inverse);
    int i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((__m256i *)(void *)(y + i), g4_int16_avx2(_mm256_mul_ps(_mm256_loadu_ps(x + i), by),
                                                                      _mm256_mul_ps(_mm256_loadu_ps(x + i + 8), by)));
    for (; i < n; i++) y[i] = g4_to_int16(x[i] * inverse);
}

/* Attention in 16 bits: g4_attend16_fn, by the same identity as the panels. 4 queries x 16 positions or dims keep 8
 * sums in registers; a step takes four dims or four positions. */
typedef struct {
    _Alignas(64) float s[G4_QUERY_BLOCK * G4_PAGE];     /* (queries, 64): scores, then e^(score - m) */
    _Alignas(64) int16_t w[G4_QUERY_BLOCK * G4_PAGE];   /* likewise: what that is in units of its query */
    float shrink[G4_QUERY_BLOCK], unit[G4_QUERY_BLOCK]; /* exp(m - m'), unit of the weights */
    /* of AVX2 only: */
    _Alignas(64) int32_t key_pairs[G4_PAGE], value_pairs[G4_MAX_HEAD_DIM]; /* sums of w0 w1 */
    int32_t query_pairs[G4_QUERY_BLOCK], weight_pairs[G4_QUERY_BLOCK];     /* sums of x0 x1 */
} g4_attend16_work;

/* The pairs of n columns of y (2 * steps, columns, 2). */
G4_BODY G4_AVX2 void g4_pairs_down16_avx2(int32_t *pairs, const int16_t *y, int y_stride, int n, int steps)
{
    for (int c = 0; c < n; c += 8) {
        __m256i sum = _mm256_setzero_si256();
        const int16_t *p = y + 2 * c;
        for (int k = 0; k < steps; k++, p += 2 * y_stride)
            sum = _mm256_add_epi32(
                sum, _mm256_madd_epi16(_mm256_loadu_si256((const __m256i *)(const void *)p),
                                       _mm256_loadu_si256((const __m256i *)(const void *)(p + y_stride))));
        _mm256_store_si256((__m256i *)(void *)(pairs + c), sum);
    }
}
/* The pairs of a row of n inputs, a multiple of 4. */
G4_BODY G4_AVX2 int32_t g4_pairs_along16_avx2(const int16_t *x, int n)
{
    __m256i twice = _mm256_setzero_si256(); /* each product stands in two lanes */
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(x + i));
        twice = _mm256_add_epi32(twice, _mm256_madd_epi16(v, _mm256_shuffle_epi32(v, 0xb1)));
    }
    uint32_t sum = (uint32_t)g4_hsum_int_avx2(_mm256_srli_epi64(twice, 32));
    for (; i < n; i += 4) sum += (uint32_t)(x[i] * x[i + 2]) + (uint32_t)(x[i + 1] * x[i + 3]);
    return (int32_t)sum;
}

/* a0, a1 = x (n, 4 * steps) . y (2 * steps, 16, 2), columns 0-7 and 8-15 */
G4_BODY G4_AVX2 void g4_products16_avx2(__m256i *a0, __m256i *a1, const int16_t *x, int x_stride,
                                        const int32_t *x_pairs, const int16_t *y, int y_stride, const int32_t *y_pairs,
                                        int steps, const int n)
{
    const __m256i zero = _mm256_setzero_si256();
    const __m256i p0 = _mm256_load_si256((const __m256i *)(const void *)y_pairs),
                  p1 = _mm256_load_si256((const __m256i *)(const void *)(y_pairs + 8));
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        const __m256i less = _mm256_sub_epi32(zero, _mm256_set1_epi32(x_pairs[i]));
        a0[i] = _mm256_sub_epi32(less, p0);
        a1[i] = _mm256_sub_epi32(less, p1);
    }
    for (int c = 0; c < steps; c++, x += 4, y += 2 * y_stride) {
        const __m256i even0 = _mm256_loadu_si256((const __m256i *)(const void *)y),
                      even1 = _mm256_loadu_si256((const __m256i *)(const void *)(y + 16));
        const __m256i odd0 = _mm256_loadu_si256((const __m256i *)(const void *)(y + y_stride)),
                      odd1 = _mm256_loadu_si256((const __m256i *)(const void *)(y + y_stride + 16));
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            const __m256i even = g4_two_avx2(x + i * x_stride), odd = g4_two_avx2(x + i * x_stride + 2);
            g4_cross_avx2(&a0[i], even, odd, even0, odd0);
            g4_cross_avx2(&a1[i], even, odd, even1, odd1);
        }
    }
}
/* Scores of queries i.. with positions c.. */
G4_BODY G4_AVX2 void g4_scores16_tile_avx2(g4_attend16_work *a, const g4_tile16 *tile, int c, int head_dim,
                                           const int16_t *q, const float *q_unit, int i0, const int n)
{
    __m256i a0[4], a1[4];
    g4_products16_avx2(a0, a1, q + i0 * head_dim, head_dim, a->query_pairs + i0, tile->k + 2 * c, 2 * G4_PAGE,
                       a->key_pairs + c, head_dim / 4, n);
    const __m256 u0 = _mm256_loadu_ps(tile->k_unit + c), u1 = _mm256_loadu_ps(tile->k_unit + c + 8);
    float *s = a->s + i0 * G4_PAGE + c;
#pragma GCC unroll 4
    for (int i = 0; i < n; i++, s += G4_PAGE) {
        const __m256 u = _mm256_broadcast_ss(q_unit + i0 + i);
        _mm256_store_ps(s, _mm256_mul_ps(_mm256_cvtepi32_ps(a0[i]), _mm256_mul_ps(u, u0)));
        _mm256_store_ps(s + 8, _mm256_mul_ps(_mm256_cvtepi32_ps(a1[i]), _mm256_mul_ps(u, u1)));
    }
}
/* o (queries, width), dims d.. of queries i.., = o * shrink + unit * sum of w times values */
G4_BODY G4_AVX2 void g4_values16_tile_avx2(g4_attend16_work *a, const g4_tile16 *tile, int d, int width, int n_keys,
                                           float *o, int i0, const int n)
{
    __m256i a0[4], a1[4];
    g4_products16_avx2(a0, a1, a->w + i0 * G4_PAGE, G4_PAGE, a->weight_pairs + i0, tile->v + 2 * d, 2 * width,
                       a->value_pairs + d, (n_keys + 3) / 4, n);
    o += i0 * width + d;
#pragma GCC unroll 4
    for (int i = 0; i < n; i++, o += width) {
        const __m256 by = _mm256_broadcast_ss(a->shrink + i0 + i), u = _mm256_set1_ps(a->unit[i0 + i] * tile->v_unit);
        const __m256 o0 = _mm256_mul_ps(_mm256_loadu_ps(o), by), o1 = _mm256_mul_ps(_mm256_loadu_ps(o + 8), by);
        _mm256_storeu_ps(o, _mm256_fmadd_ps(_mm256_cvtepi32_ps(a0[i]), u, o0));
        _mm256_storeu_ps(o + 8, _mm256_fmadd_ps(_mm256_cvtepi32_ps(a1[i]), u, o1));
    }
}
/* Scores of n queries to weights; updates m and l. */
G4_AVX2 static void g4_softmax16_avx2(g4_attend16_work *a, int n, int n_keys, float *m, float *l)
{
    float sum[G4_QUERY_BLOCK], inverse[G4_QUERY_BLOCK];
    for (int i = 0; i < n; i++) {
        float *row = a->s + i * G4_PAGE;
        for (int j = n_keys; j < G4_PAGE; j++) row[j] = -INFINITY;
        const float m0 = m[i], most = g4_row_top_avx2(row);
        m[i] = most > m0 ? most : m0;
        a->shrink[i] = m0 - m[i];
        a->unit[i] = most - m[i];
    }
    for (int i = n; i % 8; i++) a->shrink[i] = a->unit[i] = sum[i] = 0;
    for (int i = 0; i < n; i++) sum[i] = g4_row_exp_avx2(a->s + i * G4_PAGE, m[i]);
    for (int i = 0; i < n; i += 8) {
        const __m256 peak = _mm256_div_ps(g4_exp_avx2(_mm256_loadu_ps(a->unit + i)), _mm256_set1_ps((float)G4_MOST16));
        const __m256 share = _mm256_div_ps(_mm256_loadu_ps(sum + i), _mm256_set1_ps((float)G4_WEIGHTS16));
        const __m256 u = _mm256_max_ps(_mm256_max_ps(peak, share), _mm256_set1_ps(FLT_MIN));
        _mm256_storeu_ps(a->shrink + i, g4_exp_avx2(_mm256_loadu_ps(a->shrink + i)));
        _mm256_storeu_ps(a->unit + i, u);
        _mm256_storeu_ps(inverse + i, _mm256_div_ps(_mm256_set1_ps(1.0f), u));
    }
    for (int i = 0; i < n; i++) {
        const __m256 by = _mm256_broadcast_ss(inverse + i);
        int16_t *w = a->w + i * G4_PAGE;
        __m256i total = _mm256_setzero_si256();
        for (int j = 0; j < G4_PAGE; j += 16) {
            const float *row = a->s + i * G4_PAGE + j;
            const __m256i w0 = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_load_ps(row), by)),
                          w1 = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_load_ps(row + 8), by));
            total = _mm256_add_epi32(total, _mm256_add_epi32(w0, w1));
            _mm256_store_si256((__m256i *)(void *)(w + j), _mm256_permute4x64_epi64(_mm256_packs_epi32(w0, w1), 0xd8));
        }
        l[i] = l[i] * a->shrink[i] + a->unit[i] * g4_hsum_avx2(_mm256_cvtepi32_ps(total));
    }
}
#define G4_CASE_SCORES16(SUFFIX, N) \
    case N: g4_scores16_tile_##SUFFIX(a, tile, c, head_dim, q, q_unit, i0, N); break;
#define G4_CASE_VALUES16(SUFFIX, N) \
    case N: g4_values16_tile_##SUFFIX(a, tile, d, width, n_keys, o, i0, N); break;
/* Of n <= 4 queries. */
G4_AVX2 static void g4_scores16_avx2(g4_attend16_work *a, const g4_tile16 *tile, int c, int head_dim, const int16_t *q,
                                     const float *q_unit, int i0, int n)
{
    switch (n) {
        G4_CASES_4(G4_CASE_SCORES16, avx2)
    }
}
G4_AVX2 static void g4_values16_avx2(g4_attend16_work *a, const g4_tile16 *tile, int d, int width, int n_keys, float *o,
                                     int i0, int n)
{
    switch (n) {
        G4_CASES_4(G4_CASE_VALUES16, avx2)
    }
}
G4_AVX2 static void g4_attend16_avx2(const g4_tile16 *tile, int n_keys, int head_dim, const int16_t *q,
                                     const float *q_unit, int n_q, float *m, float *l, float *o)
{
    g4_attend16_work a;
    const int width = (int)g4_round_up((size_t)head_dim, 16);
    g4_pairs_down16_avx2(a.key_pairs, tile->k, 2 * G4_PAGE, G4_PAGE, head_dim / 4);
    g4_pairs_down16_avx2(a.value_pairs, tile->v, 2 * width, width, (n_keys + 3) / 4);
    for (int n; n_q > 0; n_q -= n, m += n, l += n, q_unit += n, q += n * head_dim, o += n * width) {
        n = g4_min_int(n_q, G4_QUERY_BLOCK);
        for (int i = 0; i < n; i++) a.query_pairs[i] = g4_pairs_along16_avx2(q + i * head_dim, head_dim);
        for (int c = 0; c < n_keys; c += 16)
            for (int i = 0; i < n; i += 4) g4_scores16_avx2(&a, tile, c, head_dim, q, q_unit, i, g4_min_int(n - i, 4));
        g4_softmax16_avx2(&a, n, n_keys, m, l);
        for (int i = 0; i < n; i++) a.weight_pairs[i] = g4_pairs_along16_avx2(a.w + i * G4_PAGE, G4_PAGE);
        for (int d = 0; d < width; d += 16)
            for (int i = 0; i < n; i += 4) g4_values16_avx2(&a, tile, d, width, n_keys, o, i, g4_min_int(n - i, 4));
    }
}

/* y = x / sqrt(mean(x^2) + eps) * w; the squares are summed in 32 lanes. */
G4_AVX2 static void g4_rmsnorm_avx2(float *y, const float *x, const float *w, int n, float eps)
{
    __m256 a[4] = { _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps() };
    int i = 0;
    for (; i + 32 <= n; i += 32)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            const __m256 v = _mm256_loadu_ps(x + i + 8 * k);
            a[k] = _mm256_fmadd_ps(v, v, a[k]);
        }
    for (; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i);
        a[0] = _mm256_fmadd_ps(v, v, a[0]);
    }
    float sum = g4_hsum_avx2(_mm256_add_ps(_mm256_add_ps(a[0], a[1]), _mm256_add_ps(a[2], a[3])));
    for (; i < n; i++) sum += x[i] * x[i];
    const float scale = 1.0f / sqrtf(sum / (float)n + eps);
    const __m256 vs = _mm256_set1_ps(scale);
    for (i = 0; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), vs);
        _mm256_storeu_ps(y + i, w ? _mm256_mul_ps(v, _mm256_loadu_ps(w + i)) : v);
    }
    for (; i < n; i++) y[i] = w ? x[i] * scale * w[i] : x[i] * scale;
}

/* gelu_tanh(x) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3): the same function without the cancellation of 1
 * + tanh(u). Error below 2^-20 |x|. */
G4_BODY G4_AVX2 __m256 g4_gelu_avx2(__m256 x)
{
    const __m256 x2 = _mm256_mul_ps(x, x);
    const __m256 u = _mm256_mul_ps(x, _mm256_fmadd_ps(x2, _mm256_set1_ps(-2.0f * 0.7978845608f * 0.044715f),
                                                      _mm256_set1_ps(-2.0f * 0.7978845608f)));
    const __m256 y = _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), g4_exp_avx2(u)));
    return _mm256_and_ps(y,
                         _mm256_cmp_ps(u, _mm256_set1_ps(88.0f), _CMP_NGE_UQ)); /* e^-2u would be infinite; NaN stays */
}
G4_AVX2 static void g4_geglu_avx2(float *y, const float *gate, const float *up, int n)
{
    int i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_mul_ps(g4_gelu_avx2(_mm256_loadu_ps(gate + i)), _mm256_loadu_ps(up + i)));
    if (i == n) return;
    float g[8] = { 0 }, u[8] = { 0 };
    memcpy(g, gate + i, (size_t)(n - i) * sizeof *g);
    memcpy(u, up + i, (size_t)(n - i) * sizeof *u);
    _mm256_storeu_ps(g, _mm256_mul_ps(g4_gelu_avx2(_mm256_loadu_ps(g)), _mm256_loadu_ps(u)));
    memcpy(y + i, g, (size_t)(n - i) * sizeof *g);
}

/* cap * tanh(x / cap) = cap - 2 cap / (1 + e^(2x / cap)); error below 2^-21 cap. */
G4_BODY G4_AVX2 __m256 g4_cap_avx2(__m256 x, float cap)
{
    const __m256 u = _mm256_mul_ps(x, _mm256_set1_ps(2.0f / cap));
    const __m256 e = g4_exp_avx2(_mm256_min_ps(_mm256_set1_ps(88.0f), u)); /* NaN stays */
    return _mm256_sub_ps(_mm256_set1_ps(cap),
                         _mm256_div_ps(_mm256_set1_ps(2.0f * cap), _mm256_add_ps(_mm256_set1_ps(1.0f), e)));
}
G4_AVX2 static void g4_softcap_avx2(float *x, int n, float cap)
{
    int i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(x + i, g4_cap_avx2(_mm256_loadu_ps(x + i), cap));
    if (i == n) return;
    float rest[8] = { 0 };
    memcpy(rest, x + i, (size_t)(n - i) * sizeof *rest);
    _mm256_storeu_ps(rest, g4_cap_avx2(_mm256_loadu_ps(rest), cap));
    memcpy(x + i, rest, (size_t)(n - i) * sizeof *rest);
}

static const g4_kernels g4_kernels_avx2 = {
    .isa = "avx2",
    .usable = g4_usable_avx2,
    .gemm = { [G4_TYPE_F32] = g4_gemm_f32_avx2,
              [G4_TYPE_BF16] = g4_gemm_bf16_avx2,
              [G4_TYPE_Q8_0] = g4_gemm_q8_avx2,
              [G4_TYPE_Q4_0] = g4_gemm_q4_avx2 },
    .quantize = g4_quantize_avx2,
    .attend = g4_attend_avx2,
    .attend16 = g4_attend16_avx2,
    .product16 = g4_product16_avx2,
    .quantize16 = g4_quantize16_avx2,
    .round16 = g4_round16_avx2,
    .rmsnorm = g4_rmsnorm_avx2,
    .geglu = g4_geglu_avx2,
    .softcap = g4_softcap_avx2,
};

/* ---- 4. AVX-VNNI ------------------------------------------------------------------------------------------
 *
 * vpdpbusd adds four products of unsigned x signed bytes to a 32-bit lane: one row, no 16-bit step. q4_0 nibbles are
 * unsigned as they are; q8_0 weights are made so by flipping the top bit (w + 128). Both start a block at -offset *
 * sum(q). */

#if (defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11)
#define G4_SIMD_AVXVNNI 1
static int g4_usable_avxvnni(void) { return (g4_x86_features() & G4_HAS_AVXVNNI) != 0; }

G4_BODY G4_AVXVNNI void g4_quant_tile_avxvnni(G4_TILE_ARGS_CONST, const g4_type type, const g4_scale_type scale)
{
    const __m256i low = _mm256_set1_epi8(15), flip = _mm256_set1_epi8(-128);
    const size_t steps = (size_t)x->steps, step_bytes = type == G4_TYPE_Q4_0 ? 576 : 1088;
    const int8_t *q = x->q + (size_t)t * 64 * steps;
    const float *d = x->d + (size_t)t * 2 * steps;
    const int32_t *sum = x->sum + (size_t)t * 2 * steps;
    for (int i = 0; i < n && s0 == 0; i++) g4_start_avx2(y + (size_t)i * y_stride);
    for (int s = s0; s < s1; s++)
        for (int b = 0; b < 2; b++) {
            const uint8_t *p = w + (size_t)s * step_bytes;
            const uint8_t *run = p + 64 + (type == G4_TYPE_Q4_0 ? 256 : 512) * b;
            const size_t blk = 2 * (size_t)s + (size_t)b;
            if (n == 1) g4_ahead_avx2(p + step_bytes / 2 * (size_t)b, (int)step_bytes / 2);
            __m256i a0[4], a1[4];
#pragma GCC unroll 4
            for (int i = 0; i < n; i++)
                a0[i] = a1[i] =
                    _mm256_set1_epi32((type == G4_TYPE_Q4_0 ? -8 : -128) * sum[(size_t)i * 2 * steps + blk]);
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) { /* two chunks of 4 inputs each */
                __m256i even0, even1, odd0, odd1;
                if (type == G4_TYPE_Q4_0) {
                    const __m256i w0 = _mm256_load_si256((const __m256i *)(const void *)(run + 64 * r));
                    const __m256i w1 = _mm256_load_si256((const __m256i *)(const void *)(run + 64 * r + 32));
                    even0 = _mm256_and_si256(w0, low), even1 = _mm256_and_si256(w1, low);
                    odd0 = _mm256_and_si256(_mm256_srli_epi16(w0, 4), low),
                    odd1 = _mm256_and_si256(_mm256_srli_epi16(w1, 4), low);
                } else {
                    const __m256i *v = (const __m256i *)(const void *)(run + 128 * r);
                    even0 = _mm256_xor_si256(_mm256_load_si256(v), flip),
                    even1 = _mm256_xor_si256(_mm256_load_si256(v + 1), flip);
                    odd0 = _mm256_xor_si256(_mm256_load_si256(v + 2), flip),
                    odd1 = _mm256_xor_si256(_mm256_load_si256(v + 3), flip);
                }
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) {
                    const __m256i v = g4_four_avx2(q + (size_t)i * 64 * steps + 32 * blk + 8 * (size_t)r);
                    a0[i] = _mm256_dpbusd_avx_epi32(a0[i], even0, v);
                    a1[i] = _mm256_dpbusd_avx_epi32(a1[i], even1, v);
                }
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) {
                    const __m256i v = g4_four_avx2(q + (size_t)i * 64 * steps + 32 * blk + 8 * (size_t)r + 4);
                    a0[i] = _mm256_dpbusd_avx_epi32(a0[i], odd0, v);
                    a1[i] = _mm256_dpbusd_avx_epi32(a1[i], odd1, v);
                }
            }
            const __m256 sw0 = g4_scales_avx2(p + 32 * b, scale), sw1 = g4_scales_avx2(p + 32 * b + 16, scale);
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                const __m256 dx = _mm256_set1_ps(d[(size_t)i * 2 * steps + blk]);
                const __m256 f0 = _mm256_cvtepi32_ps(a0[i]), f1 = _mm256_cvtepi32_ps(a1[i]);
                g4_add_block_avx2(y + (size_t)i * y_stride, sw0, sw1, dx, f0, f1);
            }
        }
}
G4_BODY G4_AVXVNNI void g4_q4_tile_avxvnni(G4_TILE_ARGS_CONST, const g4_scale_type scale)
{
    g4_quant_tile_avxvnni(y, y_stride, w, x, t, n, s0, s1, G4_TYPE_Q4_0, scale);
}
G4_BODY G4_AVXVNNI void g4_q8_tile_avxvnni(G4_TILE_ARGS_CONST, const g4_scale_type scale)
{
    g4_quant_tile_avxvnni(y, y_stride, w, x, t, n, s0, s1, G4_TYPE_Q8_0, scale);
}
G4_GEMM_QUANT(g4_gemm_q4_avxvnni, G4_AVXVNNI, 24, 4, g4_q4_tile_avxvnni)
G4_GEMM_QUANT(g4_gemm_q8_avxvnni, G4_AVXVNNI, 12, 4, g4_q8_tile_avxvnni)

static const g4_kernels g4_kernels_avxvnni = {
    .isa = "avxvnni",
    .usable = g4_usable_avxvnni,
    .gemm = { [G4_TYPE_F32] = g4_gemm_f32_avx2,
              [G4_TYPE_BF16] = g4_gemm_bf16_avx2,
              [G4_TYPE_Q8_0] = g4_gemm_q8_avxvnni,
              [G4_TYPE_Q4_0] = g4_gemm_q4_avxvnni },
    .quantize = g4_quantize_avx2,
    .attend = g4_attend_avx2,
    .attend16 = g4_attend16_avx2,
    .round16 = g4_round16_avx2,
    .rmsnorm = g4_rmsnorm_avx2,
    .geglu = g4_geglu_avx2,
    .softcap = g4_softcap_avx2,
};
#endif

/* ---- 5. AVX-512 ------------------------------------------------------------------------------------------------
 *
 * One register is one chunk of a group: 16 rows x 4 inputs. Tiles of 16 rows x 8 tokens keep integer and float sums in
 * registers. Without VNNI the products are those of AVX2 at twice the width; q8_0 negates activations by a mask of the
 * weights' signs. */

static int g4_usable_avx512(void) { return (g4_x86_features() & G4_HAS_AVX512) != 0; }
static int g4_usable_avx512vnni(void) { return (g4_x86_features() & G4_HAS_AVX512VNNI) != 0; }

G4_BODY G4_AVX512 __m512 g4_scales_avx512(const uint8_t *p, g4_scale_type type) /* of 16 rows */
{
    const __m256i h = _mm256_load_si256((const __m256i *)(const void *)p);
    if (type == G4_SCALE_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
G4_BODY G4_AVX512 __m512i g4_four_avx512(const int8_t *q)
{
    int32_t v;
    memcpy(&v, q, 4);
    return _mm512_set1_epi32(v);
}

/* As in AVX2, but a step takes less time, so that later ones are asked for, and into L1 alone: they are used once. On
 * Zen 4 one thread answers 9 to 16 % faster than with the distance and hint of AVX2, 8 to 12 % with q8_0, for which a
 * longer distance is worse. */
#define G4_Q4_AHEAD 9216
#define G4_Q8_AHEAD 4608
G4_BODY void g4_ahead_avx512(const uint8_t *p, int ahead, int n_bytes)
{
    for (int i = 0; i < n_bytes; i += 64) _mm_prefetch((const char *)p + ahead + i, _MM_HINT_NTA);
}

/* The frame of the four quantised tiles: PRODUCTS adds a block to a[i] (int32, 16 rows), with `run` at its weights and
 * `qb` at the activations of its first token; START is what a[i] begins with. */
#define G4_QUANT_TILE_AVX512(NAME, TARGET, STEP_BYTES, BLOCK_BYTES, AHEAD, START, PRODUCTS)            \
    G4_BODY TARGET void NAME(G4_TILE_ARGS_CONST, const g4_scale_type scale)                            \
    {                                                                                                  \
        const size_t steps = (size_t)x->steps;                                                         \
        const float *d = x->d + (size_t)t * 2 * steps;                                                 \
        const int32_t *sum = x->sum + (size_t)t * 2 * steps;                                           \
        __m512 acc[8];                                                                                 \
        G4_UNROLL_8 for (int i = 0; i < n; i++) acc[i] =                                               \
            s0 == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(y + (size_t)i * y_stride);                 \
        for (int s = s0; s < s1; s++)                                                                  \
            for (int b = 0; b < 2; b++) {                                                              \
                const uint8_t *p = w + (size_t)s * (STEP_BYTES), *run = p + 64 + (BLOCK_BYTES)*b;      \
                const size_t blk = 2 * (size_t)s + (size_t)b;                                          \
                const int8_t *qb = x->q + (size_t)t * 64 * steps + 32 * blk;                           \
                if (n == 1) g4_ahead_avx512(p + (STEP_BYTES) / 2 * b, AHEAD, (STEP_BYTES) / 2);        \
                __m512i a[8];                                                                          \
                G4_UNROLL_8 for (int i = 0; i < n; i++) a[i] =                                         \
                    _mm512_set1_epi32((START)*sum[(size_t)i * 2 * steps + blk]);                       \
                PRODUCTS(a, run, qb, 64 * steps, n);                                                   \
                const __m512 sw = g4_scales_avx512(p + 32 * b, scale);                                 \
                G4_UNROLL_8 for (int i = 0; i < n; i++) acc[i] =                                       \
                    _mm512_fmadd_ps(_mm512_mul_ps(sw, _mm512_set1_ps(d[(size_t)i * 2 * steps + blk])), \
                                    _mm512_cvtepi32_ps(a[i]), acc[i]);                                 \
            }                                                                                          \
        G4_UNROLL_8 for (int i = 0; i < n; i++) _mm512_storeu_ps(y + (size_t)i * y_stride, acc[i]);    \
    }

G4_BODY G4_AVX512 void g4_q4_products_avx512(__m512i *a, const uint8_t *run, const int8_t *q, size_t q_stride,
                                             const int n)
{
    const __m512i low = _mm512_set1_epi8(15), ones = _mm512_set1_epi16(1);
    __m512i h[8];
    G4_UNROLL_8 for (int i = 0; i < n; i++) h[i] = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        const __m512i v = _mm512_load_si512((const void *)(run + 64 * r));
        const __m512i even = _mm512_and_si512(v, low), odd = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
        G4_UNROLL_8 for (int i = 0; i < n; i++)
        {
            h[i] = _mm512_add_epi16(h[i], _mm512_maddubs_epi16(even, g4_four_avx512(q + (size_t)i * q_stride + 8 * r)));
            G4_KEEP(h[i]);
        }
        G4_UNROLL_8 for (int i = 0; i < n; i++)
        {
            h[i] =
                _mm512_add_epi16(h[i], _mm512_maddubs_epi16(odd, g4_four_avx512(q + (size_t)i * q_stride + 8 * r + 4)));
            G4_KEEP(h[i]);
        }
    }
    G4_UNROLL_8 for (int i = 0; i < n; i++) a[i] = _mm512_add_epi32(a[i], _mm512_madd_epi16(h[i], ones));
}
G4_BODY G4_AVX512 void g4_q8_products_avx512(__m512i *a, const uint8_t *run, const int8_t *q, size_t q_stride,
                                             const int n)
{
    const __m512i ones = _mm512_set1_epi16(1), zero = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int c = 0; c < 8; c++) {
        const __m512i v = _mm512_load_si512((const void *)(run + 64 * c)), magnitude = _mm512_abs_epi8(v);
        const __mmask64 negative = _mm512_movepi8_mask(v);
        G4_UNROLL_8 for (int i = 0; i < n; i++)
        {
            const __m512i xi = g4_four_avx512(q + (size_t)i * q_stride + 4 * c);
            const __m512i pairs = _mm512_maddubs_epi16(magnitude, _mm512_mask_sub_epi8(xi, negative, zero, xi));
            a[i] = _mm512_add_epi32(a[i], _mm512_madd_epi16(pairs, ones));
            G4_KEEP(a[i]);
        }
    }
}
G4_QUANT_TILE_AVX512(g4_q4_tile_avx512, G4_AVX512, 576, 256, G4_Q4_AHEAD, -8, g4_q4_products_avx512)
G4_QUANT_TILE_AVX512(g4_q8_tile_avx512, G4_AVX512, 1088, 512, G4_Q8_AHEAD, 0, g4_q8_products_avx512)
G4_GEMM_QUANT(g4_gemm_q4_avx512, G4_AVX512, 24, 8, g4_q4_tile_avx512)
G4_GEMM_QUANT(g4_gemm_q8_avx512, G4_AVX512, 12, 8, g4_q8_tile_avx512)

G4_BODY G4_AVX512VNNI void g4_q4_products_avx512vnni(__m512i *a, const uint8_t *run, const int8_t *q, size_t q_stride,
                                                     const int n)
{
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        const __m512i v = _mm512_load_si512((const void *)(run + 64 * r));
        const __m512i even = _mm512_and_si512(v, low), odd = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
        G4_UNROLL_8 for (int i = 0; i < n; i++) a[i] =
            _mm512_dpbusd_epi32(a[i], even, g4_four_avx512(q + (size_t)i * q_stride + 8 * r));
        G4_UNROLL_8 for (int i = 0; i < n; i++) a[i] =
            _mm512_dpbusd_epi32(a[i], odd, g4_four_avx512(q + (size_t)i * q_stride + 8 * r + 4));
    }
}
G4_BODY G4_AVX512VNNI void g4_q8_products_avx512vnni(__m512i *a, const uint8_t *run, const int8_t *q, size_t q_stride,
                                                     const int n)
{
    const __m512i flip = _mm512_set1_epi8(-128);
#pragma GCC unroll 8
    for (int c = 0; c < 8; c++) {
        const __m512i v = _mm512_xor_si512(_mm512_load_si512((const void *)(run + 64 * c)), flip);
        G4_UNROLL_8 for (int i = 0; i < n; i++) a[i] =
            _mm512_dpbusd_epi32(a[i], v, g4_four_avx512(q + (size_t)i * q_stride + 4 * c));
    }
}
G4_QUANT_TILE_AVX512(g4_q4_tile_avx512vnni, G4_AVX512VNNI, 576, 256, G4_Q4_AHEAD, -8, g4_q4_products_avx512vnni)
G4_QUANT_TILE_AVX512(g4_q8_tile_avx512vnni, G4_AVX512VNNI, 1088, 512, G4_Q8_AHEAD, -128, g4_q8_products_avx512vnni)
G4_GEMM_QUANT(g4_gemm_q4_avx512vnni, G4_AVX512VNNI, 24, 8, g4_q4_tile_avx512vnni)
G4_GEMM_QUANT(g4_gemm_q8_avx512vnni, G4_AVX512VNNI, 12, 8, g4_q8_tile_avx512vnni)

G4_BODY G4_AVX512 void g4_float_tile_avx512(G4_TILE_ARGS_CONST, const g4_type type)
{
    const float *xt = x->x + (size_t)t * x->x_stride;
    __m512 a[8];
    G4_UNROLL_8 for (int i = 0; i < n; i++) a[i] =
        s0 == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(y + (size_t)i * y_stride);
    for (size_t c = 64 * (size_t)s0; c < 64 * (size_t)s1; c += 2) {
        __m512 even, odd;
        if (type == G4_TYPE_F32) {
            even = _mm512_load_ps((const float *)(const void *)w + 16 * c),
            odd = _mm512_load_ps((const float *)(const void *)w + 16 * c + 16);
        } else {
            const __m512i v = _mm512_load_si512((const void *)(w + 32 * c));
            even = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
            odd = _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000u)));
        }
        G4_UNROLL_8 for (int i = 0; i < n; i++) a[i] =
            _mm512_fmadd_ps(even, _mm512_set1_ps(xt[(size_t)i * x->x_stride + c]), a[i]);
        G4_UNROLL_8 for (int i = 0; i < n; i++) a[i] =
            _mm512_fmadd_ps(odd, _mm512_set1_ps(xt[(size_t)i * x->x_stride + c + 1]), a[i]);
    }
    G4_UNROLL_8 for (int i = 0; i < n; i++) _mm512_storeu_ps(y + (size_t)i * y_stride, a[i]);
}
G4_GEMM_FLOAT(g4_gemm_f32_avx512, G4_AVX512, 3, 8, g4_float_tile_avx512, G4_TYPE_F32)
G4_GEMM_FLOAT(g4_gemm_bf16_avx512, G4_AVX512, 6, 8, g4_float_tile_avx512, G4_TYPE_BF16)

/* Sixteen cached numbers from element `at` on, times scale for q8_0. */
G4_BODY G4_AVX512 __m512 g4_widen_avx512(const void *data, size_t at, const g4_kv_type type, __m512 scale)
{
    if (type == G4_KV_F16)
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)((const uint16_t *)data + at)));
    if (type == G4_KV_F32) return _mm512_loadu_ps((const float *)data + at);
    const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)((const int8_t *)data + at));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(b)), scale);
}

/* Attention: 12 queries x 16 positions or dims, one register each; otherwise as in AVX2. */
G4_BODY G4_AVX512 void g4_scores_body_avx512(float *s, const float *const *q, int d0, const void *k, size_t k_stride,
                                             const g4_kv_type type, const float *scale, float *strip, int dims,
                                             const int n, g4_fetch fetch)
{
    const __m512 by = type == G4_KV_Q8_0 ? _mm512_loadu_ps(scale) : _mm512_setzero_ps();
    __m512 a[12];
    const float *qp[12];
#pragma GCC unroll 12
    for (int i = 0; i < n; i++) a[i] = d0 ? _mm512_load_ps(s + i * G4_PAGE) : _mm512_setzero_ps(), qp[i] = q[i] + d0;
    size_t at = 0;
    for (int c = 0; c < dims; c++, at += k_stride, fetch.at += fetch.step) {
        __builtin_prefetch(fetch.at);
        const __m512 kc = g4_widen_avx512(k, at, type, by);
        if (strip) _mm512_store_ps(strip + 16 * c, kc);
#pragma GCC unroll 12
        for (int i = 0; i < n; i++) a[i] = _mm512_fmadd_ps(kc, _mm512_set1_ps(qp[i][c]), a[i]);
    }
#pragma GCC unroll 12
    for (int i = 0; i < n; i++) _mm512_store_ps(s + i * G4_PAGE, a[i]);
}
G4_BODY G4_AVX512 void g4_values_body_avx512(float *const *o, int d0, const float *alpha, const float *p, const void *v,
                                             size_t v_stride, const g4_kv_type type, const float *scales, float *strip,
                                             int j0, int j1, const int n, g4_fetch fetch)
{
    __m512 a[12];
#pragma GCC unroll 12
    for (int i = 0; i < n; i++) a[i] = _mm512_mul_ps(_mm512_loadu_ps(o[i] + d0), _mm512_set1_ps(alpha[i]));
    size_t at = (size_t)j0 * v_stride;
    for (int j = j0; j < j1; j++, at += v_stride, fetch.at += fetch.step) {
        __builtin_prefetch(fetch.at);
        const __m512 by = type == G4_KV_Q8_0 ? _mm512_set1_ps(scales[j]) : _mm512_setzero_ps();
        const __m512 vj = g4_widen_avx512(v, at, type, by);
        if (strip) _mm512_store_ps(strip + G4_STRIP_WIDTH * j, vj);
#pragma GCC unroll 12
        for (int i = 0; i < n; i++) a[i] = _mm512_fmadd_ps(vj, _mm512_set1_ps(p[i * G4_PAGE + j]), a[i]);
    }
#pragma GCC unroll 12
    for (int i = 0; i < n; i++) _mm512_storeu_ps(o[i] + d0, a[i]);
}
G4_WIDENING(avx512, G4_AVX512, 12)
G4_ATTEND(avx512, G4_AVX512, 12, G4_WIDENS(avx512), NULL, g4_widen_values_avx2, g4_softmax_avx2)

static const g4_kernels g4_kernels_avx512 = {
    .isa = "avx512",
    .usable = g4_usable_avx512,
    .gemm = { [G4_TYPE_F32] = g4_gemm_f32_avx512,
              [G4_TYPE_BF16] = g4_gemm_bf16_avx512,
              [G4_TYPE_Q8_0] = g4_gemm_q8_avx512,
              [G4_TYPE_Q4_0] = g4_gemm_q4_avx512 },
    .quantize = g4_quantize_avx2,
    .attend = g4_attend_avx512,
    .rmsnorm = g4_rmsnorm_avx2,
    .geglu = g4_geglu_avx2,
    .softcap = g4_softcap_avx2,
};

/* Attention in 16 bits: g4_attend16_fn. vpdpwssd adds two products of int16 to a 32-bit lane, a position or a dim; 8
 * queries x 32 of them keep 16 sums in registers. */
G4_BODY G4_AVX512VNNI __m512i g4_two_avx512(const int16_t *p)
{
    return g4_four_avx512((const int8_t *)p);
}
/* a[i][k] = x (n, 2 * steps) . y (steps, 16 * sets, 2), columns 16 k.. */
G4_BODY G4_AVX512VNNI void g4_products16_avx512vnni(__m512i a[8][2], const int16_t *x, int x_stride, const int16_t *y,
                                                    int y_stride, int steps, const int n, const int sets)
{
    G4_UNROLL_8 for (int i = 0; i < n; i++) a[i][0] = a[i][1] = _mm512_setzero_si512();
    for (int c = 0; c < steps; c++, x += 2, y += y_stride) {
        const __m512i y0 = _mm512_loadu_si512(y), y1 = sets == 2 ? _mm512_loadu_si512(y + 32) : y0;
        G4_UNROLL_8 for (int i = 0; i < n; i++)
        {
            const __m512i xi = g4_two_avx512(x + i * x_stride);
            a[i][0] = _mm512_dpwssd_epi32(a[i][0], xi, y0);
            if (sets == 2) a[i][1] = _mm512_dpwssd_epi32(a[i][1], xi, y1);
        }
    }
}
/* Scores of queries i.. with positions c..c + 31; those from n_keys on are of no use to anyone. */
G4_BODY G4_AVX512VNNI void g4_scores16_tile_avx512vnni(g4_attend16_work *a, const g4_tile16 *tile, int c, int head_dim,
                                                       const int16_t *q, const float *q_unit, int i0, const int n)
{
    __m512i sums[8][2];
    g4_products16_avx512vnni(sums, q + i0 * head_dim, head_dim, tile->k + 2 * c, 2 * G4_PAGE, head_dim / 2, n, 2);
    const __m512 u0 = _mm512_loadu_ps(tile->k_unit + c), u1 = _mm512_loadu_ps(tile->k_unit + c + 16);
    float *s = a->s + i0 * G4_PAGE + c;
    G4_UNROLL_8 for (int i = 0; i < n; i++)
    {
        const __m512 u = _mm512_set1_ps(q_unit[i0 + i]);
        _mm512_store_ps(s + i * G4_PAGE, _mm512_mul_ps(_mm512_cvtepi32_ps(sums[i][0]), _mm512_mul_ps(u, u0)));
        _mm512_store_ps(s + i * G4_PAGE + 16, _mm512_mul_ps(_mm512_cvtepi32_ps(sums[i][1]), _mm512_mul_ps(u, u1)));
    }
}
/* o (queries, width), 16 * sets dims from d on of queries i.., = o * shrink + unit * sum of w times values */
G4_BODY G4_AVX512VNNI void g4_values16_sets_avx512vnni(g4_attend16_work *a, const g4_tile16 *tile, int d, int width,
                                                       int n_keys, float *o, int i0, const int n, const int sets)
{
    __m512i sums[8][2];
    g4_products16_avx512vnni(sums, a->w + i0 * G4_PAGE, G4_PAGE, tile->v + 2 * d, 2 * width, (n_keys + 1) / 2, n, sets);
    o += i0 * width + d;
    G4_UNROLL_8 for (int i = 0; i < n; i++)
    {
        const __m512 by = _mm512_set1_ps(a->shrink[i0 + i]), u = _mm512_set1_ps(a->unit[i0 + i] * tile->v_unit);
        for (int k = 0; k < sets; k++) {
            float *to = o + i * width + 16 * k;
            _mm512_storeu_ps(
                to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[i][k]), u, _mm512_mul_ps(_mm512_loadu_ps(to), by)));
        }
    }
}
G4_BODY G4_AVX512VNNI void g4_values16_tile_avx512vnni(g4_attend16_work *a, const g4_tile16 *tile, int d, int width,
                                                       int n_keys, float *o, int i0, const int n)
{
    if (width - d >= 32) g4_values16_sets_avx512vnni(a, tile, d, width, n_keys, o, i0, n, 2);
    else g4_values16_sets_avx512vnni(a, tile, d, width, n_keys, o, i0, n, 1);
}
/* Of n <= 8 queries. */
G4_AVX512VNNI static void g4_scores16_avx512vnni(g4_attend16_work *a, const g4_tile16 *tile, int c, int head_dim,
                                                 const int16_t *q, const float *q_unit, int i0, int n)
{
    switch (n) {
        G4_CASES_8(G4_CASE_SCORES16, avx512vnni)
    }
}
G4_AVX512VNNI static void g4_values16_avx512vnni(g4_attend16_work *a, const g4_tile16 *tile, int d, int width,
                                                 int n_keys, float *o, int i0, int n)
{
    switch (n) {
        G4_CASES_8(G4_CASE_VALUES16, avx512vnni)
    }
}
static void g4_attend16_avx512vnni(const g4_tile16 *tile, int n_keys, int head_dim, const int16_t *q,
                                   const float *q_unit, int n_q, float *m, float *l, float *o)
{
    g4_attend16_work a;
    const int width = (int)g4_round_up((size_t)head_dim, 16);
    for (int n; n_q > 0; n_q -= n, m += n, l += n, q_unit += n, q += n * head_dim, o += n * width) {
        n = g4_min_int(n_q, G4_QUERY_BLOCK);
        for (int c = 0; c < n_keys; c += 32)
            for (int i = 0; i < n; i += 8)
                g4_scores16_avx512vnni(&a, tile, c, head_dim, q, q_unit, i, g4_min_int(n - i, 8));
        g4_softmax16_avx2(&a, n, n_keys, m, l);
        for (int d = 0; d < width; d += 32)
            for (int i = 0; i < n; i += 8)
                g4_values16_avx512vnni(&a, tile, d, width, n_keys, o, i, g4_min_int(n - i, 8));
    }
}

static const g4_kernels g4_kernels_avx512vnni = {
    .isa = "avx512vnni",
    .usable = g4_usable_avx512vnni,
    .gemm = { [G4_TYPE_F32] = g4_gemm_f32_avx512,
              [G4_TYPE_BF16] = g4_gemm_bf16_avx512,
              [G4_TYPE_Q8_0] = g4_gemm_q8_avx512vnni,
              [G4_TYPE_Q4_0] = g4_gemm_q4_avx512vnni },
    .quantize = g4_quantize_avx2,
    .attend = g4_attend_avx512,
    .attend16 = g4_attend16_avx512vnni,
    .round16 = g4_round16_avx2,
    .rmsnorm = g4_rmsnorm_avx2,
    .geglu = g4_geglu_avx2,
    .softcap = g4_softcap_avx2,
};

#if defined(G4_SIMD_AVXVNNI)
#define G4_SIMD_TABLES &g4_kernels_avx512vnni, &g4_kernels_avx512, &g4_kernels_avxvnni, &g4_kernels_avx2,
#else
#define G4_SIMD_TABLES &g4_kernels_avx512vnni, &g4_kernels_avx512, &g4_kernels_avx2,
#endif
#endif

#if defined(G4_SIMD_ARM)

#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

/* ---- 6. aarch64: NEON, and with the dot product -----------------------------------------------------------------
 *
 * A register is one chunk of 4 rows. Plain NEON sums q4_0 products of a block in 16 bits (8 * 15 * 127 = 15240), q8_0
 * two products at a time (2 * 128 * 127 = 32512); sdot adds four signed products to a 32-bit lane, which is a row. 32
 * registers: 4 tokens with sdot, 2 without. */

G4_BODY float32x4_t g4_scales_neon(const uint8_t *p, g4_scale_type type) /* of 4 rows */
{
    const uint16x4_t h = vld1_u16((const uint16_t *)(const void *)p);
    if (type == G4_SCALE_F16) return vcvt_f32_f16(vreinterpret_f16_u16(h));
    return vreinterpretq_f32_u32(vshll_n_u16(h, 16));
}
G4_BODY int8x8_t g4_four_neon(const int8_t *q)
{
    int32_t v;
    memcpy(&v, q, 4);
    return vreinterpret_s8_s32(vdup_n_s32(v));
}
/* y = fma(scale_w * d, sum - offset, y) for one token and 16 rows */
G4_BODY void g4_block_add_neon(float *y, const uint8_t *scales, const g4_scale_type type, float d,
                               const int32x4_t sums[4], int32_t offset)
{
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        const float32x4_t f = vcvtq_f32_s32(vsubq_s32(sums[k], vdupq_n_s32(offset)));
        vst1q_f32(y + 4 * k, vfmaq_f32(vld1q_f32(y + 4 * k), vmulq_n_f32(g4_scales_neon(scales + 8 * k, type), d), f));
    }
}

G4_BODY void g4_quant_tile_neon(G4_TILE_ARGS_CONST, const g4_type type, const g4_scale_type scale)
{
    const size_t steps = (size_t)x->steps, step_bytes = type == G4_TYPE_Q4_0 ? 576 : 1088;
    const int8_t *q = x->q + (size_t)t * 64 * steps;
    const float *d = x->d + (size_t)t * 2 * steps;
    const int32_t *sum = x->sum + (size_t)t * 2 * steps;
    if (s0 == 0)
        for (int i = 0; i < n; i++)
            for (int k = 0; k < 4; k++) vst1q_f32(y + (size_t)i * y_stride + 4 * k, vdupq_n_f32(0));
    for (int s = s0; s < s1; s++)
        for (int b = 0; b < 2; b++) {
            const uint8_t *p = w + (size_t)s * step_bytes;
            const uint8_t *run = p + 64 + (type == G4_TYPE_Q4_0 ? 256 : 512) * b;
            const size_t blk = 2 * (size_t)s + (size_t)b;
            int32x4_t sums[2][4];
            if (type == G4_TYPE_Q4_0) {
                int16x8_t h[2][8]; /* two rows each: 4 partial sums a row */
                for (int i = 0; i < n; i++)
                    for (int k = 0; k < 8; k++) h[i][k] = vdupq_n_s16(0);
#pragma GCC unroll 4
                for (int r = 0; r < 4; r++)
#pragma GCC unroll 4
                    for (int k = 0; k < 4; k++) {
                        const uint8x16_t v = vld1q_u8(run + 64 * r + 16 * k);
                        const int8x16_t even = vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15))),
                                        odd = vreinterpretq_s8_u8(vshrq_n_u8(v, 4));
#pragma GCC unroll 2
                        for (int i = 0; i < n; i++) {
                            const int8_t *qi = q + (size_t)i * 64 * steps + 32 * blk + 8 * (size_t)r;
                            const int8x8_t e = g4_four_neon(qi), o = g4_four_neon(qi + 4);
                            h[i][2 * k] = vmlal_s8(vmlal_s8(h[i][2 * k], vget_low_s8(even), e), vget_low_s8(odd), o);
                            h[i][2 * k + 1] =
                                vmlal_s8(vmlal_s8(h[i][2 * k + 1], vget_high_s8(even), e), vget_high_s8(odd), o);
                        }
                    }
                for (int i = 0; i < n; i++)
                    for (int k = 0; k < 4; k++)
                        sums[i][k] = vpaddq_s32(vpaddlq_s16(h[i][2 * k]), vpaddlq_s16(h[i][2 * k + 1]));
            } else {
                int32x4_t a[2][8];
                for (int i = 0; i < n; i++)
                    for (int k = 0; k < 8; k++) a[i][k] = vdupq_n_s32(0);
#pragma GCC unroll 4
                for (int c = 0; c < 8; c += 2)
#pragma GCC unroll 4
                    for (int k = 0; k < 4; k++) {
                        const int8_t *wc = (const int8_t *)run + 64 * c + 16 * k;
                        const int8x16_t v0 = vld1q_s8(wc), v1 = vld1q_s8(wc + 64);
#pragma GCC unroll 2
                        for (int i = 0; i < n; i++) {
                            const int8_t *qi = q + (size_t)i * 64 * steps + 32 * blk + 4 * (size_t)c;
                            const int8x8_t e = g4_four_neon(qi), o = g4_four_neon(qi + 4);
                            a[i][2 * k] =
                                vpadalq_s16(a[i][2 * k], vmlal_s8(vmull_s8(vget_low_s8(v0), e), vget_low_s8(v1), o));
                            a[i][2 * k + 1] = vpadalq_s16(a[i][2 * k + 1],
                                                          vmlal_s8(vmull_s8(vget_high_s8(v0), e), vget_high_s8(v1), o));
                        }
                    }
                for (int i = 0; i < n; i++)
                    for (int k = 0; k < 4; k++) sums[i][k] = vpaddq_s32(a[i][2 * k], a[i][2 * k + 1]);
            }
            for (int i = 0; i < n; i++)
                g4_block_add_neon(y + (size_t)i * y_stride, p + 32 * b, scale, d[(size_t)i * 2 * steps + blk], sums[i],
                                  type == G4_TYPE_Q4_0 ? 8 * sum[(size_t)i * 2 * steps + blk] : 0);
        }
}
G4_BODY void g4_q4_tile_neon(G4_TILE_ARGS_CONST, const g4_scale_type scale)
{
    g4_quant_tile_neon(y, y_stride, w, x, t, n, s0, s1, G4_TYPE_Q4_0, scale);
}
G4_BODY void g4_q8_tile_neon(G4_TILE_ARGS_CONST, const g4_scale_type scale)
{
    g4_quant_tile_neon(y, y_stride, w, x, t, n, s0, s1, G4_TYPE_Q8_0, scale);
}
G4_GEMM_QUANT(g4_gemm_q4_neon, , 24, 2, g4_q4_tile_neon)
G4_GEMM_QUANT(g4_gemm_q8_neon, , 12, 2, g4_q8_tile_neon)

/* f32 and bf16: one chain per row and token, columns in order. */
G4_BODY void g4_float_tile_neon(G4_TILE_ARGS_CONST, const g4_type type)
{
    const float *xt = x->x + (size_t)t * x->x_stride;
    float32x4_t a[4][4];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) a[i][k] = s0 == 0 ? vdupq_n_f32(0) : vld1q_f32(y + (size_t)i * y_stride + 4 * k);
    for (size_t c = 64 * (size_t)s0; c < 64 * (size_t)s1; c += 2) {
        float32x4_t even[4], odd[4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            if (type == G4_TYPE_F32) {
                even[k] = vld1q_f32((const float *)(const void *)w + 16 * c + 4 * k);
                odd[k] = vld1q_f32((const float *)(const void *)w + 16 * c + 16 + 4 * k);
            } else {
                const uint32x4_t v = vreinterpretq_u32_u8(vld1q_u8(w + 32 * c + 16 * k));
                even[k] = vreinterpretq_f32_u32(vshlq_n_u32(v, 16));
                odd[k] = vreinterpretq_f32_u32(vandq_u32(v, vdupq_n_u32(0xffff0000u)));
            }
        }
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            const float32x2_t v = vld1_f32(xt + (size_t)i * x->x_stride + c);
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) a[i][k] = vfmaq_lane_f32(a[i][k], even[k], v, 0);
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) a[i][k] = vfmaq_lane_f32(a[i][k], odd[k], v, 1);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) vst1q_f32(y + (size_t)i * y_stride + 4 * k, a[i][k]);
}
G4_GEMM_FLOAT(g4_gemm_f32_neon, , 3, 4, g4_float_tile_neon, G4_TYPE_F32)
G4_GEMM_FLOAT(g4_gemm_bf16_neon, , 6, 4, g4_float_tile_neon, G4_TYPE_BF16)

static void g4_quantize_neon(int8_t *q, float *d, int32_t *sum, const float *x, int cols)
{
    for (int b = 0; b < cols / 32; b++, x += 32, q += 32) {
        float32x4_t v[8], top = vdupq_n_f32(0);
        for (int k = 0; k < 8; k++) {
            v[k] = vld1q_f32(x + 4 * k);
            top = vmaxnmq_f32(top, vabsq_f32(v[k]));
        }
        const float most = vmaxvq_f32(top);
        d[b] = most / 127.0f;
        if (!(most >= G4_QUANT_LEAST && most <= FLT_MAX)) {
            if (most < G4_QUANT_LEAST) d[b] = 0.0f;
            sum[b] = 0;
            memset(q, 0, 32);
            continue;
        }
        const float inverse = 127.0f / most;
        int32x4_t total = vdupq_n_s32(0);
        int16x8_t half[4];
        for (int k = 0; k < 8; k += 2) {
            const int32x4_t i0 = vcvtnq_s32_f32(vmulq_n_f32(v[k], inverse)),
                            i1 = vcvtnq_s32_f32(vmulq_n_f32(v[k + 1], inverse));
            total = vaddq_s32(total, vaddq_s32(i0, i1));
            half[k / 2] = vcombine_s16(vqmovn_s32(i0), vqmovn_s32(i1));
        }
        vst1q_s8(q, vcombine_s8(vqmovn_s16(half[0]), vqmovn_s16(half[1])));
        vst1q_s8(q + 16, vcombine_s8(vqmovn_s16(half[2]), vqmovn_s16(half[3])));
        sum[b] = vaddvq_s32(total);
    }
}

/* As g4_exp_avx2. */
G4_BODY float32x4_t g4_exp_neon(float32x4_t x)
{
    const uint32x4_t drop = vcltq_f32(x, vdupq_n_f32(-87.33f));
    const float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 1.44269504088896341f));
    const float32x4_t r = vfmsq_n_f32(x, n, 0.693147180559945309f);
    float32x4_t p = vdupq_n_f32(1.3814583654e-3f);
    p = vfmaq_f32(vdupq_n_f32(8.3687240258e-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(4.1668388993e-2f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.6666521132e-1f), p, r);
    p = vfmaq_f32(vdupq_n_f32(4.9999994040e-1f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    const int32x4_t bits = vaddq_s32(vreinterpretq_s32_f32(p), vshlq_n_s32(vcvtnq_s32_f32(n), 23));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_s32(bits), drop));
}

/* Attention: 6 queries x 16 positions or dims, 24 sums in registers. */
G4_BODY void g4_scores_tile_neon(float *s, const float *const *q, int d0, const float *k, int k_stride, int dims,
                                 const int n, g4_fetch fetch)
{
    float32x4_t a[6][4];
    const float *qp[6];
#pragma GCC unroll 6
    for (int i = 0; i < n; i++) {
        qp[i] = q[i] + d0;
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) a[i][r] = d0 ? vld1q_f32(s + i * G4_PAGE + 4 * r) : vdupq_n_f32(0);
    }
    for (int c = 0; c < dims; c++, k += k_stride, fetch.at += fetch.step) {
        __builtin_prefetch(fetch.at);
        const float32x4_t k0 = vld1q_f32(k), k1 = vld1q_f32(k + 4), k2 = vld1q_f32(k + 8), k3 = vld1q_f32(k + 12);
#pragma GCC unroll 6
        for (int i = 0; i < n; i++) {
            const float v = qp[i][c];
            a[i][0] = vfmaq_n_f32(a[i][0], k0, v), a[i][1] = vfmaq_n_f32(a[i][1], k1, v);
            a[i][2] = vfmaq_n_f32(a[i][2], k2, v), a[i][3] = vfmaq_n_f32(a[i][3], k3, v);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < n; i++)
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) vst1q_f32(s + i * G4_PAGE + 4 * r, a[i][r]);
}
G4_BODY void g4_values_tile_neon(float *const *o, int d0, const float *alpha, const float *p, const float *v,
                                 int v_stride, int j0, int j1, const int n, g4_fetch fetch)
{
    float32x4_t a[6][4];
#pragma GCC unroll 6
    for (int i = 0; i < n; i++)
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) a[i][r] = vmulq_n_f32(vld1q_f32(o[i] + d0 + 4 * r), alpha[i]);
    v += j0 * v_stride;
    for (int j = j0; j < j1; j++, v += v_stride, fetch.at += fetch.step) {
        __builtin_prefetch(fetch.at);
        const float32x4_t v0 = vld1q_f32(v), v1 = vld1q_f32(v + 4), v2 = vld1q_f32(v + 8), v3 = vld1q_f32(v + 12);
#pragma GCC unroll 6
        for (int i = 0; i < n; i++) {
            const float w = p[i * G4_PAGE + j];
            a[i][0] = vfmaq_n_f32(a[i][0], v0, w), a[i][1] = vfmaq_n_f32(a[i][1], v1, w);
            a[i][2] = vfmaq_n_f32(a[i][2], v2, w), a[i][3] = vfmaq_n_f32(a[i][3], v3, w);
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < n; i++)
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) vst1q_f32(o[i] + d0 + 4 * r, a[i][r]);
}
/* Four cached numbers from element `at` on, times scale for q8_0; and one. */
G4_BODY float32x4_t g4_widen_neon(const void *data, size_t at, const g4_kv_type type, float32x4_t scale)
{
    if (type == G4_KV_F16) return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)data + at)));
    if (type == G4_KV_F32) return vld1q_f32((const float *)data + at);
    const int8x8_t b = g4_four_neon((const int8_t *)data + at);
    return vmulq_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(b)))), scale);
}
G4_BODY float g4_widen_one_neon(const void *data, size_t at, const g4_kv_type type, float scale)
{
    if (type == G4_KV_F16)
        return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(((const uint16_t *)data)[at]))), 0);
    return type == G4_KV_F32 ? ((const float *)data)[at] : (float)((const int8_t *)data)[at] * scale;
}
static void g4_widen_keys_neon(float *out, const g4_kv_tile *tile, g4_kv_type type, int d0, int dims, int c)
{
    for (int r = 0; r < 16; r += 4) {
        const float32x4_t scale = type == G4_KV_Q8_0 ? vld1q_f32(tile->k_scale + 16 * c + r) : vdupq_n_f32(0);
        const size_t at = (size_t)d0 * G4_PAGE + 16 * (size_t)c + (size_t)r;
        for (size_t d = 0; d < (size_t)dims; d++)
            vst1q_f32(out + 16 * d + r, g4_widen_neon(tile->k, at + d * G4_PAGE, type, scale));
    }
}
static void g4_widen_values_neon(float *out, const g4_kv_tile *tile, g4_kv_type type, int head_dim, int d0, int width,
                                 int j0, int j1)
{
    for (int j = j0; j < j1; j++) {
        float *row = out + G4_STRIP_WIDTH * j;
        const size_t at = (size_t)j * (size_t)head_dim + (size_t)d0;
        const float scale = type == G4_KV_Q8_0 ? tile->v_scale[j] : 0.0f;
        int c = 0;
        for (; c + 4 <= width; c += 4)
            vst1q_f32(row + c, g4_widen_neon(tile->v, at + (size_t)c, type, vdupq_n_f32(scale)));
        for (; c < width; c++) row[c] = g4_widen_one_neon(tile->v, at + (size_t)c, type, scale);
        for (; c < G4_STRIP_WIDTH; c++) row[c] = 0.0f;
    }
}
static void g4_softmax_neon(float *s, int n, const int *lo, const int *hi, float *m, float *l, float *alpha)
{
    for (int i = 0; i < n; i++) {
        float *row = s + i * G4_PAGE;
        for (int j = 0; j < lo[i]; j++) row[j] = -INFINITY;
        for (int j = hi[i]; j < G4_PAGE; j++) row[j] = -INFINITY;
        float32x4_t top = vld1q_f32(row);
        for (int j = 4; j < G4_PAGE; j += 4) top = vmaxq_f32(top, vld1q_f32(row + j));
        const float m0 = m[i], max = vmaxvq_f32(top);
        m[i] = max > m0 ? max : m0;
        alpha[i] = m0 - m[i];
    }
    for (int i = n; i % 4; i++) alpha[i] = 0;
    for (int i = 0; i < n; i += 4) vst1q_f32(alpha + i, g4_exp_neon(vld1q_f32(alpha + i)));
    for (int i = 0; i < n; i++) {
        const float32x4_t top = vdupq_n_f32(m[i]);
        float32x4_t sum = vdupq_n_f32(0);
        for (float *row = s + i * G4_PAGE, *end = row + G4_PAGE; row < end; row += 4) {
            const float32x4_t p = g4_exp_neon(vsubq_f32(vld1q_f32(row), top));
            vst1q_f32(row, p);
            sum = vaddq_f32(sum, p);
        }
        l[i] = l[i] * alpha[i] + vaddvq_f32(sum);
    }
}
G4_ATTEND(neon, , 6, G4_NOT_WIDENING, g4_widen_keys_neon, g4_widen_values_neon, g4_softmax_neon)

static void g4_rmsnorm_neon(float *y, const float *x, const float *w, int n, float eps)
{
    float32x4_t a[4] = { vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0) };
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int k = 0; k < 4; k++) {
            const float32x4_t v = vld1q_f32(x + i + 4 * k);
            a[k] = vfmaq_f32(a[k], v, v);
        }
    float sum = vaddvq_f32(vaddq_f32(vaddq_f32(a[0], a[1]), vaddq_f32(a[2], a[3])));
    for (; i < n; i++) sum += x[i] * x[i];
    const float scale = 1.0f / sqrtf(sum / (float)n + eps);
    for (i = 0; i + 4 <= n; i += 4) {
        const float32x4_t v = vmulq_n_f32(vld1q_f32(x + i), scale);
        vst1q_f32(y + i, w ? vmulq_f32(v, vld1q_f32(w + i)) : v);
    }
    for (; i < n; i++) y[i] = w ? x[i] * scale * w[i] : x[i] * scale;
}

/* As g4_gelu_avx2. */
G4_BODY float32x4_t g4_gelu_neon(float32x4_t x)
{
    const float c = -2.0f * 0.7978845608f;
    const float32x4_t u = vmulq_f32(x, vfmaq_n_f32(vdupq_n_f32(c), vmulq_f32(x, x), c * 0.044715f));
    const float32x4_t y = vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0f), g4_exp_neon(u)));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(y), vcgeq_f32(u, vdupq_n_f32(88.0f))));
}
static void g4_geglu_neon(float *y, const float *gate, const float *up, int n)
{
    int i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(y + i, vmulq_f32(g4_gelu_neon(vld1q_f32(gate + i)), vld1q_f32(up + i)));
    for (; i < n; i++) y[i] = vgetq_lane_f32(g4_gelu_neon(vdupq_n_f32(gate[i])), 0) * up[i];
}

/* As g4_cap_avx2. */
G4_BODY float32x4_t g4_cap_neon(float32x4_t x, float cap)
{
    const float32x4_t e = g4_exp_neon(vminq_f32(vmulq_n_f32(x, 2.0f / cap), vdupq_n_f32(88.0f)));
    return vsubq_f32(vdupq_n_f32(cap), vdivq_f32(vdupq_n_f32(2.0f * cap), vaddq_f32(vdupq_n_f32(1.0f), e)));
}
static void g4_softcap_neon(float *x, int n, float cap)
{
    int i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(x + i, g4_cap_neon(vld1q_f32(x + i), cap));
    for (; i < n; i++) x[i] = vgetq_lane_f32(g4_cap_neon(vdupq_n_f32(x[i]), cap), 0);
}

static int g4_usable_neon(void) { return 1; } /* part of aarch64 */

static const g4_kernels g4_kernels_neon = {
    .isa = "neon",
    .usable = g4_usable_neon,
    .gemm = { [G4_TYPE_F32] = g4_gemm_f32_neon,
              [G4_TYPE_BF16] = g4_gemm_bf16_neon,
              [G4_TYPE_Q8_0] = g4_gemm_q8_neon,
              [G4_TYPE_Q4_0] = g4_gemm_q4_neon },
    .quantize = g4_quantize_neon,
    .attend = g4_attend_neon,
    .rmsnorm = g4_rmsnorm_neon,
    .geglu = g4_geglu_neon,
    .softcap = g4_softcap_neon,
};

/* clang before 16 declares the intrinsic only when the whole file may use it. */
#if !defined(__clang__) || __clang_major__ >= 16 || defined(__ARM_FEATURE_DOTPROD)
#define G4_SIMD_DOTPROD 1
#if defined(__clang__)
#define G4_DOTPROD __attribute__((target("dotprod")))
#else
#define G4_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#endif

static int g4_usable_dotprod(void)
{
#if defined(__linux__)
    return (getauxval(AT_HWCAP) >> 20 & 1) != 0; /* HWCAP_ASIMDDP */
#elif defined(__APPLE__)
    return 1; /* every 64-bit Apple CPU that runs a desktop has it */
#else
    return 0;
#endif
}

G4_BODY G4_DOTPROD void g4_quant_tile_dotprod(G4_TILE_ARGS_CONST, const g4_type type, const g4_scale_type scale)
{
    const size_t steps = (size_t)x->steps, step_bytes = type == G4_TYPE_Q4_0 ? 576 : 1088;
    const int8_t *q = x->q + (size_t)t * 64 * steps;
    const float *d = x->d + (size_t)t * 2 * steps;
    const int32_t *sum = x->sum + (size_t)t * 2 * steps;
    if (s0 == 0)
        for (int i = 0; i < n; i++)
            for (int k = 0; k < 4; k++) vst1q_f32(y + (size_t)i * y_stride + 4 * k, vdupq_n_f32(0));
    for (int s = s0; s < s1; s++)
        for (int b = 0; b < 2; b++) {
            const uint8_t *p = w + (size_t)s * step_bytes;
            const uint8_t *run = p + 64 + (type == G4_TYPE_Q4_0 ? 256 : 512) * b;
            const size_t blk = 2 * (size_t)s + (size_t)b;
            int32x4_t a[4][4];
#pragma GCC unroll 4
            for (int i = 0; i < n; i++)
#pragma GCC unroll 4
                for (int k = 0; k < 4; k++) a[i][k] = vdupq_n_s32(0);
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) { /* two chunks */
                int8x16_t even[4], odd[4];
#pragma GCC unroll 4
                for (int k = 0; k < 4; k++) {
                    if (type == G4_TYPE_Q4_0) {
                        const uint8x16_t v = vld1q_u8(run + 64 * r + 16 * k);
                        even[k] = vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15))),
                        odd[k] = vreinterpretq_s8_u8(vshrq_n_u8(v, 4));
                    } else {
                        even[k] = vld1q_s8((const int8_t *)run + 128 * r + 16 * k);
                        odd[k] = vld1q_s8((const int8_t *)run + 128 * r + 64 + 16 * k);
                    }
                }
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) {
                    const int8x8_t v = vld1_s8(q + (size_t)i * 64 * steps + 32 * blk + 8 * (size_t)r);
#pragma GCC unroll 4
                    for (int k = 0; k < 4; k++)
                        a[i][k] = vdotq_lane_s32(vdotq_lane_s32(a[i][k], even[k], v, 0), odd[k], v, 1);
                }
            }
            for (int i = 0; i < n; i++)
                g4_block_add_neon(y + (size_t)i * y_stride, p + 32 * b, scale, d[(size_t)i * 2 * steps + blk], a[i],
                                  type == G4_TYPE_Q4_0 ? 8 * sum[(size_t)i * 2 * steps + blk] : 0);
        }
}
G4_BODY G4_DOTPROD void g4_q4_tile_dotprod(G4_TILE_ARGS_CONST, const g4_scale_type scale)
{
    g4_quant_tile_dotprod(y, y_stride, w, x, t, n, s0, s1, G4_TYPE_Q4_0, scale);
}
G4_BODY G4_DOTPROD void g4_q8_tile_dotprod(G4_TILE_ARGS_CONST, const g4_scale_type scale)
{
    g4_quant_tile_dotprod(y, y_stride, w, x, t, n, s0, s1, G4_TYPE_Q8_0, scale);
}
G4_GEMM_QUANT(g4_gemm_q4_dotprod, G4_DOTPROD, 24, 4, g4_q4_tile_dotprod)
G4_GEMM_QUANT(g4_gemm_q8_dotprod, G4_DOTPROD, 12, 4, g4_q8_tile_dotprod)

static const g4_kernels g4_kernels_dotprod = {
    .isa = "dotprod",
    .usable = g4_usable_dotprod,
    .gemm = { [G4_TYPE_F32] = g4_gemm_f32_neon,
              [G4_TYPE_BF16] = g4_gemm_bf16_neon,
              [G4_TYPE_Q8_0] = g4_gemm_q8_dotprod,
              [G4_TYPE_Q4_0] = g4_gemm_q4_dotprod },
    .quantize = g4_quantize_neon,
    .attend = g4_attend_neon,
    .rmsnorm = g4_rmsnorm_neon,
    .geglu = g4_geglu_neon,
    .softcap = g4_softcap_neon,
};
#define G4_SIMD_TABLES &g4_kernels_dotprod, &g4_kernels_neon,
#else
#define G4_SIMD_TABLES &g4_kernels_neon,
#endif
#endif
#endif
