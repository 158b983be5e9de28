/* gemma4_simd.h - vector kernels and nothing else.
 *
 * One block per instruction set, each in the order of the scalar section of gemma4.c, which defines what is computed. Every function
 * carries its own target attribute, so the file needs no -m flags and one binary serves every CPU; a table's usable() asks the CPU and
 * the operating system. Only gemma4.c includes this file; with G4_SCALAR_ONLY, or a compiler without GNU extensions, it is empty.
 *
 * Numbers. Sums of integer products are exact, so q, d, sum and every block's isum equal the scalar kernels bit for bit. Floats are added
 * in an order fixed by the table, never by the tile: acc = fma(scale_w * scale_x, (float)isum, acc), block after block, whether a token
 * comes alone or in a panel.
 *
 *   1  x86-64: asking the CPU
 *   2  AVX2 + FMA + F16C
 *   3  AVX-VNNI: the quantised products of AVX2 with vpdpbusd
 *   4  AVX-512 (F, BW, VL, DQ), and with VNNI
 *   5  aarch64: NEON, and with the dot product
 *   6  The list
 */
#ifndef GEMMA4_SIMD_H
#define GEMMA4_SIMD_H

#if !defined(G4_SCALAR_ONLY) && defined(__GNUC__) && defined(__x86_64__)
#define G4_SIMD_X86 1
#elif !defined(G4_SCALAR_ONLY) && defined(__GNUC__) && defined(__aarch64__) && defined(__LITTLE_ENDIAN__ )
#define G4_SIMD_ARM 1
#endif

#if defined(G4_SIMD_X86)

#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include <cpuid.h>

/* A body that must disappear into its caller, where its constant arguments (number of tokens, scale type) unroll the loops. */
#define G4_BODY static inline __attribute__((always_inline))
#define G4_AVX2 __attribute__((target("avx2,fma,f16c")))
#define G4_AVXVNNI __attribute__((target("avx2,fma,f16c,avxvnni")))
#define G4_AVX512 __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")))
#define G4_AVX512VNNI __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))

/* ---- 1. x86-64: asking the CPU --------------------------------------------------------------------
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
    if ((xcr0_lo & 0xe0u) == 0xe0u && (b & (f | dq | bw | vl)) == (f | dq | bw | vl)) { /* k masks, upper halves, zmm16-31 */
        has |= G4_HAS_AVX512;
        if (c & vnni) has |= G4_HAS_AVX512VNNI;
    }
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 4))) has |= G4_HAS_AVXVNNI;
    return has;
}
static int g4_usable_avx2(void) { return (g4_x86_features() & G4_HAS_AVX2) != 0; }

/* ---- 2. AVX2 + FMA + F16C ---------------------------------------------------------------------------
 *
 * Products: a tile is 16 rows (one group) x up to 4 tokens. */

#define G4_TILE_TOKENS 4

/* Walk tokens and groups so that the activations of a block of tokens stay in L2 while weights pass through L1: per group, k_steps
 * steps of its weights (at most 14 KB) are used for every tile of the block before the next ones are touched. The sums wait in y,
 * where the block order of a row is the same for any tile. */
typedef void (*g4_tile_fn)(float *y, size_t y_stride, const uint8_t *w, const g4_acts *x, int t, int n, int s0, int s1);
#define G4_L2_ACTS 200000 /* bytes of activations per block of tokens: 512 KB of L2 less room for weights and y */

G4_BODY void g4_gemm_tiles(float *y, size_t y_stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0, int g1, int k_steps,
                           size_t token_bytes, g4_tile_fn tile)
{
    int block = (int)(G4_L2_ACTS / (token_bytes * (size_t)w->steps)) / 8 * 8;
    if (block < 8) block = 8;
    for (int ta = t0; ta < t1; ta += block) {
        const int tb = g4_min_int(ta + block, t1);
        for (int g = g0; g < g1; g++) {
            const uint8_t *group = w->data + (size_t)g * w->group_bytes;
            float *yg = y + (size_t)(g - g0) * 16;
            for (int s = 0; s < w->steps; s += k_steps) {
                const int se = g4_min_int(s + k_steps, w->steps);
                for (int t = ta; t < tb; t += G4_TILE_TOKENS)
                    tile(yg + (size_t)(t - t0) * y_stride, y_stride, group, x, t, g4_min_int(G4_TILE_TOKENS, tb - t), s, se);
            }
        }
    }
}

/* Keeps a sum in its register and in source order: gcc would rebalance integer sums into trees and shuffle float ones between
 * registers. Emits nothing. */
#define G4_KEEP(v) __asm__("" : "+x"(v))

/* Scales of 8 rows. */
G4_BODY G4_AVX2 __m256 g4_scales_avx2(const uint8_t *p, g4_scale_type type)
{
    const __m128i h = _mm_load_si128((const __m128i *)(const void *)p);
    if (type == G4_SCALE_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
G4_BODY G4_AVX2 __m256i g4_four_avx2(const int8_t *q) /* 4 inputs of one token, for every row */
{
    int32_t v;
    memcpy(&v, q, 4);
    return _mm256_set1_epi32(v);
}

/* q4_0: unsigned nibbles x int8 in 16-bit lanes over a block of 32 (15 * 127 * 2 * 8 = 30480 fits), then pairs to 32 bits, less 8 * sum(q).
 * 8 sums of 16 bits (4 tokens x 2 halves), 4 weights, mask and one broadcast fill the 16 registers; float sums rest in y.
 * Bound: 2 multiplies + 2 adds per 64 products, four vector pipes. */
G4_BODY G4_AVX2 void g4_q4_tile_avx2(float *y, size_t y_stride, const uint8_t *w, const g4_acts *x, int t, const int n, int s0, int s1,
                                     const g4_scale_type type)
{
    const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    const size_t steps = (size_t)x->steps;
    const int8_t *q = x->q + (size_t)t * 64 * steps;
    const float *d = x->d + (size_t)t * 2 * steps;
    const int32_t *sum = x->sum + (size_t)t * 2 * steps;
    if (s0 == 0)
        for (int i = 0; i < n; i++) {
            _mm256_storeu_ps(y + (size_t)i * y_stride, _mm256_setzero_ps());
            _mm256_storeu_ps(y + (size_t)i * y_stride + 8, _mm256_setzero_ps());
        }
    for (int s = s0; s < s1; s++)
        for (int b = 0; b < 2; b++) {
            const uint8_t *p = w + (size_t)s * 576;
            const uint8_t *run = p + 64 + 256 * b;
            const size_t blk = 2 * (size_t)s + (size_t)b;
            __m256i a0[G4_TILE_TOKENS], a1[G4_TILE_TOKENS];
            for (int i = 0; i < n; i++) a0[i] = a1[i] = _mm256_setzero_si256();
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                const __m256i w0 = _mm256_load_si256((const __m256i *)(const void *)(run + 64 * r));
                const __m256i w1 = _mm256_load_si256((const __m256i *)(const void *)(run + 64 * r + 32));
                const __m256i l0 = _mm256_and_si256(w0, low), l1 = _mm256_and_si256(w1, low);
                const __m256i h0 = _mm256_and_si256(_mm256_srli_epi16(w0, 4), low), h1 = _mm256_and_si256(_mm256_srli_epi16(w1, 4), low);
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
                float *yi = y + (size_t)i * y_stride;
                const __m256 f0 = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_madd_epi16(a0[i], ones), off));
                const __m256 f1 = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_madd_epi16(a1[i], ones), off));
                _mm256_storeu_ps(yi, _mm256_fmadd_ps(_mm256_mul_ps(sw0, dx), f0, _mm256_loadu_ps(yi)));
                _mm256_storeu_ps(yi + 8, _mm256_fmadd_ps(_mm256_mul_ps(sw1, dx), f1, _mm256_loadu_ps(yi + 8)));
            }
        }
}

/* q8_0: |w| x sign(x, w) gives pairs of at most 128 * 127 * 2 = 32512, widened to 32 bits after each product. */
G4_BODY G4_AVX2 void g4_q8_tile_avx2(float *y, size_t y_stride, const uint8_t *w, const g4_acts *x, int t, const int n, int s0, int s1,
                                     const g4_scale_type type)
{
    const __m256i ones = _mm256_set1_epi16(1);
    const size_t steps = (size_t)x->steps;
    const int8_t *q = x->q + (size_t)t * 64 * steps;
    const float *d = x->d + (size_t)t * 2 * steps;
    if (s0 == 0)
        for (int i = 0; i < n; i++) {
            _mm256_storeu_ps(y + (size_t)i * y_stride, _mm256_setzero_ps());
            _mm256_storeu_ps(y + (size_t)i * y_stride + 8, _mm256_setzero_ps());
        }
    for (int s = s0; s < s1; s++)
        for (int b = 0; b < 2; b++) {
            const uint8_t *p = w + (size_t)s * 1088;
            const uint8_t *chunk = p + 64 + 512 * b;
            const size_t blk = 2 * (size_t)s + (size_t)b;
            __m256i a0[G4_TILE_TOKENS], a1[G4_TILE_TOKENS];
            for (int i = 0; i < n; i++) a0[i] = a1[i] = _mm256_setzero_si256();
#pragma GCC unroll 8
            for (int c = 0; c < 8; c++) {
                const __m256i w0 = _mm256_load_si256((const __m256i *)(const void *)(chunk + 64 * c));
                const __m256i w1 = _mm256_load_si256((const __m256i *)(const void *)(chunk + 64 * c + 32));
                const __m256i m0 = _mm256_abs_epi8(w0), m1 = _mm256_abs_epi8(w1);
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) {
                    const __m256i v = g4_four_avx2(q + (size_t)i * 64 * steps + 32 * blk + 4 * (size_t)c);
                    a0[i] = _mm256_add_epi32(a0[i], _mm256_madd_epi16(_mm256_maddubs_epi16(m0, _mm256_sign_epi8(v, w0)), ones));
                    a1[i] = _mm256_add_epi32(a1[i], _mm256_madd_epi16(_mm256_maddubs_epi16(m1, _mm256_sign_epi8(v, w1)), ones));
                    G4_KEEP(a0[i]);
                    G4_KEEP(a1[i]);
                }
            }
            const __m256 sw0 = g4_scales_avx2(p + 32 * b, type), sw1 = g4_scales_avx2(p + 32 * b + 16, type);
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                const __m256 dx = _mm256_set1_ps(d[(size_t)i * 2 * steps + blk]);
                float *yi = y + (size_t)i * y_stride;
                const __m256 f0 = _mm256_cvtepi32_ps(a0[i]), f1 = _mm256_cvtepi32_ps(a1[i]);
                _mm256_storeu_ps(yi, _mm256_fmadd_ps(_mm256_mul_ps(sw0, dx), f0, _mm256_loadu_ps(yi)));
                _mm256_storeu_ps(yi + 8, _mm256_fmadd_ps(_mm256_mul_ps(sw1, dx), f1, _mm256_loadu_ps(yi + 8)));
            }
        }
}

/* The tile functions of a table: the number of tokens and the scale type become constants here. */
#define G4_TILES(NAME, TARGET, BODY, TYPE)                                                                                              \
    TARGET static void NAME(float *y, size_t y_stride, const uint8_t *w, const g4_acts *x, int t, int n, int s0, int s1)                 \
    {                                                                                                                                   \
        switch (n) {                                                                                                                    \
        case 1: BODY(y, y_stride, w, x, t, 1, s0, s1, TYPE); break;                                                                      \
        case 2: BODY(y, y_stride, w, x, t, 2, s0, s1, TYPE); break;                                                                      \
        case 3: BODY(y, y_stride, w, x, t, 3, s0, s1, TYPE); break;                                                                      \
        default: BODY(y, y_stride, w, x, t, 4, s0, s1, TYPE); break;                                                                     \
        }                                                                                                                               \
    }
#define G4_GEMM(NAME, TARGET, K_STEPS, F16_TILES, BF16_TILES)                                                                            \
    TARGET static void NAME(float *y, size_t y_stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0, int g1)             \
    {                                                                                                                                   \
        const int k_steps = t1 - t0 > G4_TILE_TOKENS ? (K_STEPS) : w->steps;                                                             \
        if (w->scale_type == G4_SCALE_F16) g4_gemm_tiles(y, y_stride, w, x, t0, t1, g0, g1, k_steps, 80, F16_TILES);                      \
        else g4_gemm_tiles(y, y_stride, w, x, t0, t1, g0, g1, k_steps, 80, BF16_TILES);                                                  \
    }
G4_TILES(g4_q4_tiles_f16_avx2, G4_AVX2, g4_q4_tile_avx2, G4_SCALE_F16)
G4_TILES(g4_q4_tiles_bf16_avx2, G4_AVX2, g4_q4_tile_avx2, G4_SCALE_BF16)
G4_GEMM(g4_gemm_q4_avx2, G4_AVX2, 24, g4_q4_tiles_f16_avx2, g4_q4_tiles_bf16_avx2)
G4_TILES(g4_q8_tiles_f16_avx2, G4_AVX2, g4_q8_tile_avx2, G4_SCALE_F16)
G4_TILES(g4_q8_tiles_bf16_avx2, G4_AVX2, g4_q8_tile_avx2, G4_SCALE_BF16)
G4_GEMM(g4_gemm_q8_avx2, G4_AVX2, 12, g4_q8_tiles_f16_avx2, g4_q8_tiles_bf16_avx2)

/* f32 and bf16: one chain of fused multiply-adds per row and token, columns in order; 4 tokens x 16 rows keep both units busy. */
G4_BODY G4_AVX2 void g4_float_tile_avx2(float *y, size_t y_stride, const uint8_t *w, const g4_acts *x, int t, const int n, int s0, int s1,
                                        const g4_type type)
{
    const float *xt = x->x + (size_t)t * x->x_stride;
    __m256 a0[G4_TILE_TOKENS], a1[G4_TILE_TOKENS];
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        a0[i] = s0 == 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(y + (size_t)i * y_stride);
        a1[i] = s0 == 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(y + (size_t)i * y_stride + 8);
    }
    for (size_t c = 64 * (size_t)s0; c < 64 * (size_t)s1; c += 2) {
        __m256 even0, even1, odd0, odd1;
        if (type == G4_TYPE_F32) {
            const float *p = (const float *)(const void *)w + 16 * c;
            even0 = _mm256_load_ps(p), even1 = _mm256_load_ps(p + 8), odd0 = _mm256_load_ps(p + 16), odd1 = _mm256_load_ps(p + 24);
        } else {
            const __m256i high = _mm256_set1_epi32((int)0xffff0000u);
            const __m256i w0 = _mm256_load_si256((const __m256i *)(const void *)(w + 32 * c));
            const __m256i w1 = _mm256_load_si256((const __m256i *)(const void *)(w + 32 * c + 32));
            even0 = _mm256_castsi256_ps(_mm256_slli_epi32(w0, 16)), even1 = _mm256_castsi256_ps(_mm256_slli_epi32(w1, 16));
            odd0 = _mm256_castsi256_ps(_mm256_and_si256(w0, high)), odd1 = _mm256_castsi256_ps(_mm256_and_si256(w1, high));
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
#define G4_GEMM_FLOAT(NAME, TARGET, K_STEPS, TILES)                                                                                      \
    TARGET static void NAME(float *y, size_t y_stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0, int g1)             \
    {                                                                                                                                   \
        g4_gemm_tiles(y, y_stride, w, x, t0, t1, g0, g1, t1 - t0 > G4_TILE_TOKENS ? (K_STEPS) : w->steps, 256, TILES);                     \
    }
G4_TILES(g4_f32_tiles_avx2, G4_AVX2, g4_float_tile_avx2, G4_TYPE_F32)
G4_GEMM_FLOAT(g4_gemm_f32_avx2, G4_AVX2, 3, g4_f32_tiles_avx2)
G4_TILES(g4_bf16_tiles_avx2, G4_AVX2, g4_float_tile_avx2, G4_TYPE_BF16)
G4_GEMM_FLOAT(g4_gemm_bf16_avx2, G4_AVX2, 6, g4_bf16_tiles_avx2)

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
        const __m256 x0 = _mm256_loadu_ps(x), x1 = _mm256_loadu_ps(x + 8), x2 = _mm256_loadu_ps(x + 16), x3 = _mm256_loadu_ps(x + 24);
        const float most = g4_hmax_avx2(_mm256_max_ps(_mm256_max_ps(_mm256_and_ps(x0, magnitude), _mm256_and_ps(x1, magnitude)),
                                                      _mm256_max_ps(_mm256_and_ps(x2, magnitude), _mm256_and_ps(x3, magnitude))));
        d[b] = most / 127.0f;
        if (!(most >= G4_QUANT_LEAST && most <= FLT_MAX)) {
            if (most < G4_QUANT_LEAST) d[b] = 0.0f;
            sum[b] = 0;
            memset(q, 0, 32);
            continue;
        }
        const __m256 inverse = _mm256_set1_ps(127.0f / most);
        const __m256i i0 = _mm256_cvtps_epi32(_mm256_mul_ps(x0, inverse)), i1 = _mm256_cvtps_epi32(_mm256_mul_ps(x1, inverse));
        const __m256i i2 = _mm256_cvtps_epi32(_mm256_mul_ps(x2, inverse)), i3 = _mm256_cvtps_epi32(_mm256_mul_ps(x3, inverse));
        const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(i0, i1), _mm256_packs_epi32(i2, i3));
        _mm256_storeu_si256((__m256i *)(void *)q, _mm256_permutevar8x32_epi32(packed, order));
        const __m256i s8 = _mm256_add_epi32(_mm256_add_epi32(i0, i1), _mm256_add_epi32(i2, i3));
        __m128i s4 = _mm_add_epi32(_mm256_castsi256_si128(s8), _mm256_extracti128_si256(s8, 1));
        s4 = _mm_add_epi32(s4, _mm_shuffle_epi32(s4, 0x4e));
        s4 = _mm_add_epi32(s4, _mm_shuffle_epi32(s4, 0xb1));
        sum[b] = _mm_cvtsi128_si32(s4);
    }
}

/* e^x for x <= 88: 2^n * p(r), n = rint(x / ln 2), r = x - n ln 2 in two parts, p of degree 6 (Cephes expf). Relative error below 2^-22;
 * 0 below -87.33, also for -infinity. */
G4_BODY G4_AVX2 __m256 g4_exp_avx2(__m256 x)
{
    const __m256 least = _mm256_set1_ps(-87.33f);
    const __m256 keep = _mm256_cmp_ps(x, least, _CMP_NLT_UQ); /* NaN stays */
    const __m256 v = _mm256_max_ps(least, _mm256_min_ps(_mm256_set1_ps(88.3f), x));
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(v, _mm256_set1_ps(1.44269504088896341f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), v));
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0f));
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_and_ps(keep, _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent)));
}

/* Attention on one tile. Keys and values are widened once per call and block of queries, in strips that fit in L1, then used for all
 * its queries: scores by 6 queries x 16 positions, values by 6 queries x 16 dimensions (12 sums in registers). */
#define G4_QUERY_BLOCK 64  /* a block: its scores are 16 KB */
#define G4_ATTEND_DIMS 128    /* of a key strip: 8 KB */
#define G4_ATTEND_TILE 6

/* s[i][0..15] += sum over dims of q[i][d] * k[d][0..15]; rows of s are G4_PAGE apart. */
G4_BODY G4_AVX2 void g4_scores_tile_avx2(float *s, const float *const *q, int d0, const float *k, int dims, const int n)
{
    __m256 a0[G4_ATTEND_TILE], a1[G4_ATTEND_TILE];
    const float *qp[G4_ATTEND_TILE];
#pragma GCC unroll 6
    for (int i = 0; i < n; i++) {
        a0[i] = _mm256_load_ps(s + i * G4_PAGE), a1[i] = _mm256_load_ps(s + i * G4_PAGE + 8);
        qp[i] = q[i] + d0;
    }
    for (int c = 0; c < dims; c++) {
        const __m256 k0 = _mm256_load_ps(k + 16 * c), k1 = _mm256_load_ps(k + 16 * c + 8);
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
/* o[i][0..15] = o[i][0..15] * alpha[i] + sum over j in [j0, j1) of p[i][j] * v[j][0..15]; rows of v are 32 floats apart. */
G4_BODY G4_AVX2 void g4_values_tile_avx2(float *const *o, int d0, const float *alpha, const float *p, const float *v, int j0, int j1,
                                         const int n)
{
    __m256 a0[G4_ATTEND_TILE], a1[G4_ATTEND_TILE];
#pragma GCC unroll 6
    for (int i = 0; i < n; i++) {
        const __m256 scale = _mm256_broadcast_ss(alpha + i);
        a0[i] = _mm256_mul_ps(_mm256_loadu_ps(o[i] + d0), scale), a1[i] = _mm256_mul_ps(_mm256_loadu_ps(o[i] + d0 + 8), scale);
    }
    for (int j = j0; j < j1; j++) {
        const __m256 v0 = _mm256_load_ps(v + 32 * j), v1 = _mm256_load_ps(v + 32 * j + 8);
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
#define G4_ATTEND_TILES(SUFFIX, TARGET, CASES)                                                                                           \
    TARGET static void g4_scores_##SUFFIX(float *s, const float *const *q, int d0, const float *k, int dims, int n)                      \
    {                                                                                                                                   \
        switch (n) { CASES(G4_CASE_SCORES, SUFFIX) }                                                                                      \
    }                                                                                                                                   \
    TARGET static void g4_values_##SUFFIX(float *const *o, int d0, const float *alpha, const float *p, const float *v, int j0, int j1,   \
                                          int n)                                                                                        \
    {                                                                                                                                   \
        switch (n) { CASES(G4_CASE_VALUES, SUFFIX) }                                                                                      \
    }
#define G4_CASE_SCORES(SUFFIX, N) case N: g4_scores_tile_##SUFFIX(s, q, d0, k, dims, N); break;
#define G4_CASE_VALUES(SUFFIX, N) case N: g4_values_tile_##SUFFIX(o, d0, alpha, p, v, j0, j1, N); break;
#define G4_CASES_6(C, SUFFIX) C(SUFFIX, 1) C(SUFFIX, 2) C(SUFFIX, 3) C(SUFFIX, 4) C(SUFFIX, 5) C(SUFFIX, 6)
G4_ATTEND_TILES(avx2, G4_AVX2, G4_CASES_6)

typedef void (*g4_scores_fn)(float *s, const float *const *q, int d0, const float *k, int dims, int n);
typedef void (*g4_values_fn)(float *const *o, int d0, const float *alpha, const float *p, const float *v, int j0, int j1, int n);

/* Queries of the next tile when `left` are left: full tiles, then halves of about equal size. */
G4_BODY int g4_attend_tile(int left) { return left <= G4_ATTEND_TILE ? left : left >= G4_ATTEND_TILE + 4 ? G4_ATTEND_TILE : 4; }

/* k (dims, 64) at column 16 c to out (dims, 16) */
G4_BODY G4_AVX2 void g4_widen_keys_avx2(float *out, const g4_kv_tile *tile, const g4_kv_type type, int d0, int dims, int c)
{
    const size_t at = (size_t)d0 * G4_PAGE + 16 * (size_t)c;
    if (type == G4_KV_F16) {
        const uint16_t *k = (const uint16_t *)tile->k + at;
        for (int d = 0; d < dims; d++, k += G4_PAGE) {
            _mm256_store_ps(out + 16 * d, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)k)));
            _mm256_store_ps(out + 16 * d + 8, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(k + 8))));
        }
    } else if (type == G4_KV_F32) {
        const float *k = (const float *)tile->k + at;
        for (int d = 0; d < dims; d++, k += G4_PAGE) {
            _mm256_store_ps(out + 16 * d, _mm256_loadu_ps(k));
            _mm256_store_ps(out + 16 * d + 8, _mm256_loadu_ps(k + 8));
        }
    } else {
        const int8_t *k = (const int8_t *)tile->k + at;
        const __m256 s0 = _mm256_loadu_ps(tile->k_scale + 16 * c), s1 = _mm256_loadu_ps(tile->k_scale + 16 * c + 8);
        for (int d = 0; d < dims; d++, k += G4_PAGE) {
            const __m128i w = _mm_loadu_si128((const __m128i *)(const void *)k);
            _mm256_store_ps(out + 16 * d, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(w)), s0));
            _mm256_store_ps(out + 16 * d + 8, _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(w, 8))), s1));
        }
    }
}
/* v rows [j0, j1), dims d0..d0 + width - 1, to out (64, 32), zeros behind width */
G4_BODY G4_AVX2 void g4_widen_values_avx2(float *out, const g4_kv_tile *tile, const g4_kv_type type, int head_dim, int d0, int width, int j0,
                                          int j1)
{
    for (int j = j0; j < j1; j++) {
        float *row = out + 32 * j;
        const size_t at = (size_t)j * (size_t)head_dim + (size_t)d0;
        int c = 0;
        if (type == G4_KV_F16) {
            const uint16_t *v = (const uint16_t *)tile->v + at;
            for (; c + 8 <= width; c += 8) _mm256_store_ps(row + c, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(v + c))));
            for (; c < width; c++) row[c] = _cvtsh_ss(v[c]);
        } else if (type == G4_KV_F32) {
            const float *v = (const float *)tile->v + at;
            for (; c + 8 <= width; c += 8) _mm256_store_ps(row + c, _mm256_loadu_ps(v + c));
            for (; c < width; c++) row[c] = v[c];
        } else {
            const int8_t *v = (const int8_t *)tile->v + at;
            const __m256 scale = _mm256_broadcast_ss(tile->v_scale + j);
            for (; c + 8 <= width; c += 8) {
                const __m256i w = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(v + c)));
                _mm256_store_ps(row + c, _mm256_mul_ps(_mm256_cvtepi32_ps(w), scale));
            }
            for (; c < width; c++) row[c] = (float)v[c] * tile->v_scale[j];
        }
        for (; c < 32; c++) row[c] = 0.0f;
    }
}

/* Scores of one query to weights: masks s outside [lo, hi), updates m and l, returns exp(m - m'). */
G4_BODY G4_AVX2 float g4_softmax_avx2(float *s, int lo, int hi, float *m, float *l)
{
    for (int j = 0; j < lo; j++) s[j] = -INFINITY;
    for (int j = hi; j < G4_PAGE; j++) s[j] = -INFINITY;
    __m256 top = _mm256_load_ps(s);
    for (int j = 8; j < G4_PAGE; j += 8) top = _mm256_max_ps(top, _mm256_load_ps(s + j));
    const float m0 = *m, max = g4_hmax_avx2(top), m1 = max > m0 ? max : m0;
    const __m256 vm = _mm256_set1_ps(m1);
    __m256 sum = _mm256_setzero_ps();
    for (int j = 0; j < G4_PAGE; j += 8) {
        const __m256 p = g4_exp_avx2(_mm256_sub_ps(_mm256_load_ps(s + j), vm));
        _mm256_store_ps(s + j, p);
        sum = _mm256_add_ps(sum, p);
    }
    const float alpha = _mm256_cvtss_f32(g4_exp_avx2(_mm256_set1_ps(m0 - m1)));
    *l = *l * alpha + g4_hsum_avx2(sum);
    *m = m1;
    return alpha;
}

G4_BODY G4_AVX2 void g4_attend_x86(const g4_kv_tile *tile, const g4_kv_type type, int head_dim, const float *q, int n_q, const int *lo,
                                   const int *hi, float *m, float *l, float *o, g4_scores_fn scores, g4_values_fn values)
{
    _Alignas(64) float s[G4_QUERY_BLOCK * G4_PAGE], strip[G4_PAGE * 32], tail[G4_ATTEND_TILE * 16];
    _Static_assert(G4_PAGE * 32 >= G4_ATTEND_DIMS * 16, "one buffer serves key and value strips");
    const float *qs[G4_QUERY_BLOCK];
    float *os[G4_QUERY_BLOCK], alpha[G4_QUERY_BLOCK];
    int index[G4_QUERY_BLOCK];
    for (int q0 = 0; q0 < n_q; q0 += G4_QUERY_BLOCK) {
        int n = 0, j0 = G4_PAGE, j1 = 0;
        for (int i = q0; i < g4_min_int(q0 + G4_QUERY_BLOCK, n_q); i++) {
            if (lo[i] >= hi[i]) continue;
            qs[n] = q + (size_t)i * (size_t)head_dim;
            os[n] = o + (size_t)i * (size_t)head_dim;
            index[n++] = i;
            j0 = g4_min_int(j0, lo[i]);
            j1 = g4_max_int(j1, hi[i]);
        }
        if (n == 0) continue;
        memset(s, 0, (size_t)n * G4_PAGE * sizeof *s);
        for (int d0 = 0; d0 < head_dim; d0 += G4_ATTEND_DIMS) {
            const int dims = g4_min_int(G4_ATTEND_DIMS, head_dim - d0);
            for (int c = j0 / 16; c < (j1 + 15) / 16; c++) {
                g4_widen_keys_avx2(strip, tile, type, d0, dims, c);
                for (int i = 0, k; i < n; i += k) {
                    k = g4_attend_tile(n - i);
                    scores(s + i * G4_PAGE + 16 * c, qs + i, d0, strip, dims, k);
                }
            }
        }
        for (int i = 0; i < n; i++)
            alpha[i] = g4_softmax_avx2(s + i * G4_PAGE, lo[index[i]], hi[index[i]], m + index[i], l + index[i]);
        for (int d0 = 0; d0 < head_dim; d0 += 32) {
            const int width = g4_min_int(32, head_dim - d0);
            g4_widen_values_avx2(strip, tile, type, head_dim, d0, width, j0, j1);
            for (int c = 0; c < width; c += 16)
                for (int i = 0, k; i < n; i += k) {
                    k = g4_attend_tile(n - i);
                    if (width - c >= 16) {
                        values(os + i, d0 + c, alpha + i, s + i * G4_PAGE, strip + c, j0, j1, k);
                        continue;
                    }
                    float *part[G4_ATTEND_TILE];
                    for (int r = 0; r < k; r++) {
                        part[r] = memset(tail + 16 * r, 0, 16 * sizeof *tail);
                        memcpy(part[r], os[i + r] + d0 + c, (size_t)(width - c) * sizeof *tail);
                    }
                    values(part, 0, alpha + i, s + i * G4_PAGE, strip + c, j0, j1, k);
                    for (int r = 0; r < k; r++) memcpy(os[i + r] + d0 + c, part[r], (size_t)(width - c) * sizeof *tail);
                }
        }
    }
}
#define G4_ATTEND(NAME, TARGET, SCORES, VALUES)                                                                                          \
    TARGET static void NAME(const g4_kv_tile *tile, g4_kv_type type, int head_dim, const float *q, int n_q, const int *lo, const int *hi, \
                            float *m, float *l, float *o)                                                                               \
    {                                                                                                                                   \
        if (type == G4_KV_F16) g4_attend_x86(tile, G4_KV_F16, head_dim, q, n_q, lo, hi, m, l, o, SCORES, VALUES);                         \
        else if (type == G4_KV_F32) g4_attend_x86(tile, G4_KV_F32, head_dim, q, n_q, lo, hi, m, l, o, SCORES, VALUES);                    \
        else g4_attend_x86(tile, G4_KV_Q8_0, head_dim, q, n_q, lo, hi, m, l, o, SCORES, VALUES);                                          \
    }
G4_ATTEND(g4_attend_avx2, G4_AVX2, g4_scores_avx2, g4_values_avx2)

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

/* gelu_tanh(x) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3): the same function without the cancellation of 1 + tanh(u).
 * Error below 2^-20 |x|. */
G4_BODY G4_AVX2 __m256 g4_gelu_avx2(__m256 x)
{
    const __m256 x2 = _mm256_mul_ps(x, x);
    const __m256 u = _mm256_mul_ps(x, _mm256_fmadd_ps(x2, _mm256_set1_ps(-2.0f * 0.7978845608f * 0.044715f), _mm256_set1_ps(-2.0f * 0.7978845608f)));
    const __m256 y = _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), g4_exp_avx2(u)));
    return _mm256_and_ps(y, _mm256_cmp_ps(u, _mm256_set1_ps(88.0f), _CMP_NGE_UQ)); /* e^-2u would be infinite; NaN stays */
}
G4_AVX2 static void g4_geglu_avx2(float *y, const float *gate, const float *up, int n)
{
    int i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, _mm256_mul_ps(g4_gelu_avx2(_mm256_loadu_ps(gate + i)), _mm256_loadu_ps(up + i)));
    if (i == n) return;
    float g[8] = { 0 }, u[8] = { 0 };
    memcpy(g, gate + i, (size_t)(n - i) * sizeof *g);
    memcpy(u, up + i, (size_t)(n - i) * sizeof *u);
    _mm256_storeu_ps(g, _mm256_mul_ps(g4_gelu_avx2(_mm256_loadu_ps(g)), _mm256_loadu_ps(u)));
    memcpy(y + i, g, (size_t)(n - i) * sizeof *g);
}

static const g4_kernels g4_kernels_avx2 = {
    .isa = "avx2",
    .usable = g4_usable_avx2,
    .gemm = { [G4_TYPE_F32] = g4_gemm_f32_avx2, [G4_TYPE_BF16] = g4_gemm_bf16_avx2, [G4_TYPE_Q8_0] = g4_gemm_q8_avx2,
              [G4_TYPE_Q4_0] = g4_gemm_q4_avx2 },
    .quantize = g4_quantize_avx2,
    .attend = g4_attend_avx2,
    .rmsnorm = g4_rmsnorm_avx2,
    .geglu = g4_geglu_avx2,
};

#define G4_SIMD_TABLES &g4_kernels_avx2,
#endif
#endif
