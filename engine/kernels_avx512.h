/* kernels_avx512.h - AVX-512 (F, BW, VL, DQ), and with VNNI: 32 registers of 16 floats, in the order of kernels.c. What
 * is not here is AVX2's. */
#ifndef GEMMA4_KERNELS_AVX512_H
#define GEMMA4_KERNELS_AVX512_H

#include "kernels_avx2.h"

#define G4_AVX512 __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")))
#define G4_AVX512VNNI __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))

static int g4_usable_avx512(void) { return (g4_x86_features() & G4_HAS_AVX512) != 0; }
static int g4_usable_avx512vnni(void) { return (g4_x86_features() & G4_HAS_AVX512VNNI) != 0; }

/* ---- Products -----------------------------------------------------------------------------------------------------
 *
 * One register is one chunk of a group: 16 rows x 4 inputs. Tiles of 16 rows x 8 tokens keep integer and float sums in
 * registers. */

/* f32 and bf16: one chain of fused multiply-adds per row and token, columns in order: 8 registers of sums, 2 of
 * weights. Bound: the units that multiply; on Zen 4 16 multiply-adds a cycle, and one token, which is a single chain,
 * 4. */

G4_BODY G4_AVX512 void g4_float_tile_avx512(G4_TILE_ARGS_CONST, const g4_type type)
{
    const float *xt = x->x + (size_t)t * x->x_stride;
    __m512 a[8];
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) a[i] = s0 == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(y + (size_t)i * y_stride);
    for (size_t c = 64 * (size_t)s0; c < 64 * (size_t)s1; c += 2) {
        __m512 even, odd;
        if (type == G4_TYPE_F32) {
            even = _mm512_load_ps((const float *)(const void *)w + 16 * c);
            odd = _mm512_load_ps((const float *)(const void *)w + 16 * c + 16);
        } else {
            const __m512i v = _mm512_load_si512((const void *)(w + 32 * c));
            even = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
            odd = _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000u)));
        }
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) a[i] = _mm512_fmadd_ps(even, _mm512_set1_ps(xt[(size_t)i * x->x_stride + c]), a[i]);
#pragma GCC unroll 8
        for (int i = 0; i < n; i++)
            a[i] = _mm512_fmadd_ps(odd, _mm512_set1_ps(xt[(size_t)i * x->x_stride + c + 1]), a[i]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) _mm512_storeu_ps(y + (size_t)i * y_stride, a[i]);
}
G4_GEMM_FLOAT(g4_gemm_f32_avx512, G4_AVX512, 8, g4_float_tile_avx512, G4_TYPE_F32)
G4_GEMM_FLOAT(g4_gemm_bf16_avx512, G4_AVX512, 8, g4_float_tile_avx512, G4_TYPE_BF16)

G4_BODY G4_AVX512 __m512 g4_scales_avx512(const uint8_t *p, g4_scale_type type) /* of 16 rows */
{
    if (type == G4_SCALE_NONE) return _mm512_load_ps((const void *)p);
    const __m256i h = _mm256_load_si256((const void *)p);
    if (type == G4_SCALE_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
G4_BODY G4_AVX512 __m512i g4_four_avx512(const int8_t *q)
{
    int32_t v;
    memcpy(&v, q, 4);
    return _mm512_set1_epi32(v);
}

/* One token is bound by memory, as in AVX2, but a step takes less time, so that later ones are asked for, and into L1
 * alone: they are used once. On Zen 4 one thread answers 9 to 16 % faster than with the distance and hint of AVX2, 8 to
 * 12 % with q8_0, for which a longer distance is worse. */
#define G4_Q4_AHEAD 9216
#define G4_Q8_AHEAD 4608
G4_BODY void g4_ahead_avx512(const uint8_t *p, int ahead, int n_bytes)
{
    for (int i = 0; i < n_bytes; i += 64) _mm_prefetch((const char *)p + ahead + i, _MM_HINT_NTA);
}

/* Sums of a tile, one register a token: those of earlier steps wait in y. */
G4_BODY G4_AVX512 void g4_tile_open_avx512(__m512 acc[8], const float *y, size_t y_stride, int first, const int n)
{
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) acc[i] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(y + (size_t)i * y_stride);
}
G4_BODY G4_AVX512 void g4_tile_close_avx512(const __m512 acc[8], float *y, size_t y_stride, const int n)
{
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) _mm512_storeu_ps(y + (size_t)i * y_stride, acc[i]);
}

/* Sums of a block, one register a token: they begin at -offset times the token's sum of q, and the block adds them
 * times both scales. sum and d are those of the first token. */
G4_BODY G4_AVX512 void g4_block_open_avx512(__m512i a[8], const int16_t *sum, size_t steps, size_t block, int offset,
                                            const int n)
{
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) a[i] = _mm512_set1_epi32(-offset * g4_block_sum(sum + (size_t)i * 4 * steps, block));
}
G4_BODY G4_AVX512 void g4_block_close_avx512(__m512 acc[8], const __m512i a[8], __m512 sw, const float *d, size_t steps,
                                             size_t block, const int n)
{
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
        const __m512 scale = _mm512_mul_ps(sw, _mm512_set1_ps(d[(size_t)i * 2 * steps + block]));
        acc[i] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(a[i]), acc[i]);
    }
}

/* The frame of the two tiles of q8_0: PRODUCTS adds a block to a[i] (int32, 16 rows), with the block's weights and the
 * inputs of its first token; OFFSET is what the weights that it multiplies have. 8 registers hold float sums, 8
 * those of the block. */
#define G4_Q8_TILE_AVX512(NAME, TARGET, OFFSET, PRODUCTS)                                                              \
    G4_BODY TARGET void NAME(G4_TILE_ARGS_CONST, const g4_scale_type scales)                                           \
    {                                                                                                                  \
        const size_t steps = (size_t)x->steps;                                                                         \
        const float *d = x->d + (size_t)t * 2 * steps;                                                                 \
        const int16_t *sum = x->sum + (size_t)t * 4 * steps;                                                           \
        __m512 acc[8];                                                                                                 \
        g4_tile_open_avx512(acc, y, y_stride, s0 == 0, n);                                                             \
        for (int s = s0; s < s1; s++)                                                                                  \
            for (int b = 0; b < g4_bytes_blocks(scales); b++) {                                                        \
                const size_t block = (size_t)(g4_bytes_blocks(scales) * s + b);                                        \
                const uint8_t *weights = g4_bytes_weights(w, block, scales);                                           \
                const int part = g4_bytes_step(scales) / g4_bytes_blocks(scales);                                      \
                const int8_t *q = x->q + (size_t)t * 64 * steps + 32 * block;                                          \
                __m512i a[8];                                                                                          \
                if (n == 1) g4_ahead_avx512(weights, G4_Q8_AHEAD, part);                                               \
                g4_block_open_avx512(a, sum, steps, block, OFFSET, n);                                                 \
                PRODUCTS(a, weights, q, 64 * steps, n);                                                                \
                const __m512 sw = g4_scales_avx512(g4_bytes_scales(w, block, scales), scales);                         \
                g4_block_close_avx512(acc, a, sw, d, steps, block, n);                                                 \
            }                                                                                                          \
        g4_tile_close_avx512(acc, y, y_stride, n);                                                                     \
    }

/* q8_0 without VNNI: |w| x inputs that are negated by a mask of the weights' signs, pairs widened to 32 bits after each
 * product. Bound: three of the four operations for 64 products multiply or take a mask. */
G4_BODY G4_AVX512 void g4_q8_products_avx512(__m512i *a, const uint8_t *run, const int8_t *q, size_t q_stride,
                                             const int n)
{
    const __m512i ones = _mm512_set1_epi16(1), zero = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int c = 0; c < 8; c++) {
        const __m512i v = _mm512_load_si512((const void *)(run + 64 * c)), magnitude = _mm512_abs_epi8(v);
        const __mmask64 negative = _mm512_movepi8_mask(v);
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) {
            const __m512i xi = g4_four_avx512(q + (size_t)i * q_stride + 4 * c);
            const __m512i pairs = _mm512_maddubs_epi16(magnitude, _mm512_mask_sub_epi8(xi, negative, zero, xi));
            a[i] = _mm512_add_epi32(a[i], _mm512_madd_epi16(pairs, ones));
            G4_KEEP(a[i]);
        }
    }
}
G4_Q8_TILE_AVX512(g4_q8_tile_avx512, G4_AVX512, 0, g4_q8_products_avx512)
G4_GEMM_BYTES(g4_gemm_q8_avx512, G4_AVX512, 8, 0, g4_q8_tile_avx512)

/* vpdpbusd adds four products of unsigned x signed bytes to a 32-bit lane, a row; the weights of q8_0 are made
 * unsigned by flipping the top bit (w + 128). Bound: it shares the pipes that multiply with the float sums; on Zen 4 a
 * block of 8 tokens, 4096 products, is 80 cycles of them. */
G4_BODY G4_AVX512VNNI void g4_q8_products_avx512vnni(__m512i *a, const uint8_t *run, const int8_t *q, size_t q_stride,
                                                     const int n)
{
    const __m512i flip = _mm512_set1_epi8(-128);
#pragma GCC unroll 8
    for (int c = 0; c < 8; c++) {
        const __m512i v = _mm512_xor_si512(_mm512_load_si512((const void *)(run + 64 * c)), flip);
#pragma GCC unroll 8
        for (int i = 0; i < n; i++)
            a[i] = _mm512_dpbusd_epi32(a[i], v, g4_four_avx512(q + (size_t)i * q_stride + 4 * c));
    }
}
G4_Q8_TILE_AVX512(g4_q8_tile_avx512vnni, G4_AVX512VNNI, 128, g4_q8_products_avx512vnni)
G4_GEMM_BYTES(g4_gemm_q8_avx512vnni, G4_AVX512VNNI, 8, 0, g4_q8_tile_avx512vnni)

/* Types of nibbles: chunks 2 run and 2 run + 1 of a block as unsigned bytes. */
G4_BODY G4_AVX512 __m512i g4_shift_avx512(__m512i v, const int left)
{
    switch (left) { /* compilers differ in the type of the count, which only numbers fit */
    case 4: return _mm512_slli_epi16(v, 4);
    case 3: return _mm512_slli_epi16(v, 3);
    case 2: return _mm512_slli_epi16(v, 2);
    case 1: return _mm512_slli_epi16(v, 1);
    case -1: return _mm512_srli_epi16(v, 1);
    case -2: return _mm512_srli_epi16(v, 2);
    case -3: return _mm512_srli_epi16(v, 3);
    case -4: return _mm512_srli_epi16(v, 4);
    case -6: return _mm512_srli_epi16(v, 6);
    default: return v;
    }
}
G4_BODY G4_AVX512 void g4_unpack_avx512(__m512i *even, __m512i *odd, const g4_nibbles_at *at, const int run,
                                        const g4_nibbles *shape)
{
    const int high_bits = shape->high_bits;
    if (shape->low_bits == 0) {
        const __m512i two = _mm512_load_si512((const void *)(at->high + G4_PLANE * (run / 2)));
        *even = _mm512_and_si512(g4_shift_avx512(two, -4 * (run % 2)), _mm512_set1_epi8(3));
        *odd = _mm512_and_si512(g4_shift_avx512(two, -4 * (run % 2) - 2), _mm512_set1_epi8(3));
        return;
    }
    const __m512i low = _mm512_set1_epi8(15), bits = _mm512_set1_epi8(high_bits == 1 ? 16 : 48);
    const __m512i v = _mm512_load_si512((const void *)(at->q + 64 * run));
    *even = _mm512_and_si512(v, low);
    *odd = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
    if (high_bits == 0) return;
    const int plane = high_bits == 1 ? 0 : run / 2, first = high_bits == 1 ? 2 * run : 4 * (run % 2);
    const __m512i h = _mm512_load_si512((const void *)(at->high + G4_PLANE * plane));
    *even = _mm512_or_si512(*even, _mm512_and_si512(g4_shift_avx512(h, 4 - first), bits));
    *odd = _mm512_or_si512(*odd, _mm512_and_si512(g4_shift_avx512(h, 4 - first - high_bits), bits));
}

G4_BODY G4_AVX512 __m512 g4_sixteen_bytes_avx512(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128((const void *)p)));
}
/* What the scales of a block say of its rows: weights are scale * (q - middle) + shift. */
G4_BODY G4_AVX512 void g4_nibbles_scales_avx512(__m512 *scale, __m512 *shift, const uint8_t *step, int b,
                                                const g4_nibbles *shape, const g4_scale_type scales)
{
    const int of_block = shape->kind <= G4_SCALES_MIN ? b * G4_BLOCK_SCALES : 0;
    const uint8_t *bytes = step + G4_STEP_SCALES + 32 * b;
    const __m512 middle = _mm512_set1_ps((float)shape->middle);
    *shift = _mm512_setzero_ps();
    *scale = g4_scales_avx512(step + of_block, scales);
    if (shape->kind == G4_SCALES_MIN)
        *shift = _mm512_fmadd_ps(middle, *scale, g4_scales_avx512(step + G4_STEP_SCALES + of_block, scales));
    if (shape->kind == G4_SCALES_K_MIN) {
        const __m512 dmin = g4_scales_avx512(step + G4_BLOCK_SCALES, scales);
        *scale = _mm512_mul_ps(*scale, g4_sixteen_bytes_avx512(bytes));
        *shift = _mm512_fmsub_ps(middle, *scale, _mm512_mul_ps(dmin, g4_sixteen_bytes_avx512(bytes + 16)));
    }
}

/* A run for n tokens without VNNI: sums in 16 bits; with it: in 32. */
G4_BODY G4_AVX512 void g4_run_avx512(__m512i a[8], __m512i v, const int8_t *q, size_t q_stride, const int n)
{
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
        a[i] = _mm512_add_epi16(a[i], _mm512_maddubs_epi16(v, g4_four_avx512(q + (size_t)i * q_stride)));
        G4_KEEP(a[i]);
    }
}
G4_BODY G4_AVX512VNNI void g4_run_avx512vnni(__m512i a[8], __m512i v, const int8_t *q, size_t q_stride, const int n)
{
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) a[i] = _mm512_dpbusd_epi32(a[i], v, g4_four_avx512(q + (size_t)i * q_stride));
}

/* Sums of a block (int32, 16 rows), or of half of it, runs [r0, r1), less middle times what `total` sums of q. Without
 * VNNI as in AVX2: as many chunks as fit in 16 bits, then pairs to 32; bound: 2 multiplications and 2 additions for 128
 * products. */
G4_BODY G4_AVX512 void g4_nibbles_sums_avx512(__m512i a[8], const g4_nibbles_at *at, const int r0, const int r1,
                                              const int8_t *q, size_t q_stride, const int *total,
                                              const g4_nibbles *shape, const int n)
{
    const int fit = 4 >> g4_wide_bits(shape); /* runs */
    const __m512i ones = _mm512_set1_epi16(1);
    __m512i h[8];
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) a[i] = _mm512_set1_epi32(-shape->middle * total[i]);
#pragma GCC unroll 4
    for (int r = r0; r < r1; r++) {
        __m512i even, odd;
        g4_unpack_avx512(&even, &odd, at, r, shape);
        for (int i = 0; i < n && r % fit == 0; i++) h[i] = _mm512_setzero_si512();
        g4_run_avx512(h, even, q + 8 * r, q_stride, n);
        g4_run_avx512(h, odd, q + 8 * r + 4, q_stride, n);
        if (r % fit < fit - 1) continue;
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) a[i] = _mm512_add_epi32(a[i], _mm512_madd_epi16(h[i], ones));
    }
}
G4_BODY G4_AVX512VNNI void g4_nibbles_sums_avx512vnni(__m512i a[8], const g4_nibbles_at *at, const int r0, const int r1,
                                                      const int8_t *q, size_t q_stride, const int *total,
                                                      const g4_nibbles *shape, const int n)
{
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) a[i] = _mm512_set1_epi32(-shape->middle * total[i]);
#pragma GCC unroll 4
    for (int r = r0; r < r1; r++) {
        __m512i even, odd;
        g4_unpack_avx512(&even, &odd, at, r, shape);
        g4_run_avx512vnni(a, even, q + 8 * r, q_stride, n);
        g4_run_avx512vnni(a, odd, q + 8 * r + 4, q_stride, n);
    }
}

/* The frame of the tiles of nibbles: SUMS are those of a block, or of its halves, which then have integer scales. */
#define G4_NIBBLES_TILE_AVX512(NAME, TARGET, SUMS)                                                                     \
    G4_BODY TARGET void NAME(G4_TILE_ARGS_CONST, const g4_type type, const g4_scale_type scales)                       \
    {                                                                                                                  \
        const g4_nibbles *shape = &g4_nibbles_of[type];                                                                \
        const size_t steps = (size_t)x->steps;                                                                         \
        const float *d = x->d + (size_t)t * 2 * steps;                                                                 \
        const int16_t *sum = x->sum + (size_t)t * 4 * steps;                                                           \
        __m512 acc[8];                                                                                                 \
        g4_tile_open_avx512(acc, y, y_stride, s0 == 0, n);                                                             \
        for (int s = s0; s < s1; s++)                                                                                  \
            for (int b = 0; b < shape->blocks; b++) {                                                                  \
                const uint8_t *p = w + (size_t)s * (size_t)shape->bytes;                                               \
                const g4_nibbles_at at = g4_nibbles_block(p, shape, b);                                                \
                const size_t block = (size_t)shape->blocks * (size_t)s + (size_t)b;                                    \
                const int8_t *q = x->q + (size_t)t * 64 * steps + 32 * block;                                          \
                const int part = shape->bytes / shape->blocks;                                                         \
                __m512i a[8];                                                                                          \
                int total[8];                                                                                          \
                if (n == 1) g4_ahead_avx512(p + part * b, G4_Q4_AHEAD, part);                                          \
                for (int i = 0; i < n; i++) total[i] = g4_block_sum(sum + (size_t)i * 4 * steps, block);               \
                if (shape->kind == G4_SCALES_K_HALVES) {                                                               \
                    const __m128i *by = (const void *)(p + G4_STEP_SCALES + 32 * b);                                   \
                    const __m512i by0 = _mm512_cvtepi8_epi32(_mm_load_si128(by)),                                      \
                                  by1 = _mm512_cvtepi8_epi32(_mm_load_si128(by + 1));                                  \
                    __m512i second[8];                                                                                 \
                    int half[2][8];                                                                                    \
                    for (int i = 0; i < n; i++) half[0][i] = sum[(size_t)i * 4 * steps + 2 * block];                   \
                    for (int i = 0; i < n; i++) half[1][i] = total[i] - half[0][i];                                    \
                    SUMS(a, &at, 0, 2, q, 64 * steps, half[0], shape, n);                                              \
                    SUMS(second, &at, 2, 4, q, 64 * steps, half[1], shape, n);                                         \
                    for (int i = 0; i < n; i++)                                                                        \
                        a[i] = _mm512_add_epi32(_mm512_mullo_epi32(a[i], by0), _mm512_mullo_epi32(second[i], by1));    \
                } else {                                                                                               \
                    SUMS(a, &at, 0, 4, q, 64 * steps, total, shape, n);                                                \
                }                                                                                                      \
                __m512 scale, shift;                                                                                   \
                g4_nibbles_scales_avx512(&scale, &shift, p, b, shape, scales);                                         \
                g4_block_close_avx512(acc, a, scale, d, steps, block, n);                                              \
                for (int i = 0; i < n && g4_has_mins(shape); i++)                                                      \
                    acc[i] = _mm512_fmadd_ps(                                                                          \
                        shift, _mm512_set1_ps(d[(size_t)i * 2 * steps + block] * (float)total[i]), acc[i]);            \
            }                                                                                                          \
        g4_tile_close_avx512(acc, y, y_stride, n);                                                                     \
    }
G4_NIBBLES_TILE_AVX512(g4_nibbles_tile_avx512, G4_AVX512, g4_nibbles_sums_avx512)
G4_GEMM_NIBBLES(avx512, G4_AVX512, 8, 0, g4_nibbles_tile_avx512)
G4_NIBBLES_TILE_AVX512(g4_nibbles_tile_avx512vnni, G4_AVX512VNNI, g4_nibbles_sums_avx512vnni)
G4_GEMM_NIBBLES(avx512vnni, G4_AVX512VNNI, 8, 0, g4_nibbles_tile_avx512vnni)

/* ---- Attention ------------------------------------------------------------------------------------------------- */

/* Sixteen cached numbers from element `offset` on, times scale for q8_0. */
G4_BODY G4_AVX512 __m512 g4_widen_avx512(const void *data, size_t offset, const g4_kv_type type, __m512 scale)
{
    if (type == G4_KV_F16) return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)((const uint16_t *)data + offset)));
    if (type == G4_KV_F32) return _mm512_loadu_ps((const float *)data + offset);
    const __m128i b = _mm_loadu_si128((const void *)((const int8_t *)data + offset));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(b)), scale);
}

/* 12 queries x 16 positions or dims, one register each, and one for 16 keys or values; numbers of queries are broadcast
 * from memory. Bound: the units that multiply, as above; otherwise as in AVX2. */
G4_BODY G4_AVX512 void g4_scores_body_avx512(float *s, const float *const *q, int d0, const void *k, size_t k_stride,
                                             const g4_kv_type type, const float *scale, float *strip, int dims,
                                             const int n, g4_fetch fetch)
{
    const __m512 by = type == G4_KV_Q8_0 ? _mm512_loadu_ps(scale) : _mm512_setzero_ps();
    __m512 a[12];
    const float *qp[12];
#pragma GCC unroll 12
    for (int i = 0; i < n; i++) a[i] = d0 ? _mm512_load_ps(s + i * G4_PAGE) : _mm512_setzero_ps(), qp[i] = q[i] + d0;
    size_t offset = 0;
    for (int c = 0; c < dims; c++, offset += k_stride, fetch.next += fetch.step) {
        __builtin_prefetch(fetch.next);
        const __m512 kc = g4_widen_avx512(k, offset, type, by);
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
    size_t offset = (size_t)j0 * v_stride;
    for (int j = j0; j < j1; j++, offset += v_stride, fetch.next += fetch.step) {
        __builtin_prefetch(fetch.next);
        const __m512 by = type == G4_KV_Q8_0 ? _mm512_set1_ps(scales[j]) : _mm512_setzero_ps();
        const __m512 vj = g4_widen_avx512(v, offset, type, by);
        if (strip) _mm512_store_ps(strip + G4_STRIP_WIDTH * j, vj);
#pragma GCC unroll 12
        for (int i = 0; i < n; i++) a[i] = _mm512_fmadd_ps(vj, _mm512_set1_ps(p[i * G4_PAGE + j]), a[i]);
    }
#pragma GCC unroll 12
    for (int i = 0; i < n; i++) _mm512_storeu_ps(o[i] + d0, a[i]);
}
G4_WIDENING(avx512, G4_AVX512, 12)
G4_ATTEND(avx512, G4_AVX512, 12, G4_WIDENS(avx512), NULL, g4_widen_values_avx2, g4_softmax_avx2)

/* Attention in 16 bits: g4_attend16_fn. vpdpwssd adds two products of int16 to a 32-bit lane, a position or a dim; 8
 * queries x 32 of them keep 16 sums in registers, 2 hold keys or values, one two numbers of a query. Bound: one such
 * multiplication a cycle on Zen 4, 32 products. */
G4_BODY G4_AVX512VNNI __m512i g4_two_avx512(const int16_t *p) { return g4_four_avx512((const int8_t *)p); }
/* a[i][k] = x (n, 2 * steps) . y (steps, 16 * sets, 2), columns 16 k.. */
G4_BODY G4_AVX512VNNI void g4_products16_avx512vnni(__m512i a[8][2], const int16_t *x, int x_stride, const int16_t *y,
                                                    int y_stride, int steps, const int n, const int sets)
{
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) a[i][0] = a[i][1] = _mm512_setzero_si512();
    for (int c = 0; c < steps; c++, x += 2, y += y_stride) {
        const __m512i y0 = _mm512_loadu_si512(y), y1 = sets == 2 ? _mm512_loadu_si512(y + 32) : y0;
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) {
            const __m512i xi = g4_two_avx512(x + i * x_stride);
            a[i][0] = _mm512_dpwssd_epi32(a[i][0], xi, y0);
            if (sets == 2) a[i][1] = _mm512_dpwssd_epi32(a[i][1], xi, y1);
        }
    }
}
/* Scores of n queries from i0 on with positions c..c + 31; those from n_keys on are of no use to anyone. */
G4_BODY G4_AVX512VNNI void g4_scores16_tile_avx512vnni(g4_attend16_work *a, const g4_tile16 *tile, int c, int head_dim,
                                                       const int16_t *q, const float *q_unit, int i0, const int n)
{
    __m512i sums[8][2];
    g4_products16_avx512vnni(sums, q + i0 * head_dim, head_dim, tile->k + 2 * c, 2 * G4_PAGE, head_dim / 2, n, 2);
    const __m512 u0 = _mm512_loadu_ps(tile->k_unit + c), u1 = _mm512_loadu_ps(tile->k_unit + c + 16);
    float *s = a->s + i0 * G4_PAGE + c;
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
        const __m512 u = _mm512_set1_ps(q_unit[i0 + i]);
        _mm512_store_ps(s + i * G4_PAGE, _mm512_mul_ps(_mm512_cvtepi32_ps(sums[i][0]), _mm512_mul_ps(u, u0)));
        _mm512_store_ps(s + i * G4_PAGE + 16, _mm512_mul_ps(_mm512_cvtepi32_ps(sums[i][1]), _mm512_mul_ps(u, u1)));
    }
}
/* o (queries, width), 16 * sets dims from d on of n queries from i0 on, = o * shrink + unit * sum of w times values */
G4_BODY G4_AVX512VNNI void g4_values16_sets_avx512vnni(g4_attend16_work *a, const g4_tile16 *tile, int d, int width,
                                                       int n_keys, float *o, int i0, const int n, const int sets)
{
    __m512i sums[8][2];
    g4_products16_avx512vnni(sums, a->w + i0 * G4_PAGE, G4_PAGE, tile->v + 2 * d, 2 * width, (n_keys + 1) / 2, n, sets);
    o += i0 * width + d;
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
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
    if (width - d >= 32)
        g4_values16_sets_avx512vnni(a, tile, d, width, n_keys, o, i0, n, 2);
    else
        g4_values16_sets_avx512vnni(a, tile, d, width, n_keys, o, i0, n, 1);
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

static const g4_kernels g4_kernels_avx512 = {
    .isa = "avx512",
    .usable = g4_usable_avx512,
    .gemm = { [G4_TYPE_F32] = g4_gemm_f32_avx512,
              [G4_TYPE_BF16] = g4_gemm_bf16_avx512,
              [G4_TYPE_Q8_0] = g4_gemm_q8_avx512,
              [G4_TYPE_Q8_ROW] = g4_gemm_q8_avx512,
              G4_NIBBLES_OF(avx512) },
    .quantize = g4_quantize_avx2,
    .attend = g4_attend_avx512,
    .rmsnorm = g4_rmsnorm_avx2,
    .geglu = g4_geglu_avx2,
    .softcap = g4_softcap_avx2,
};

static const g4_kernels g4_kernels_avx512vnni = {
    .isa = "avx512vnni",
    .usable = g4_usable_avx512vnni,
    .gemm = { [G4_TYPE_F32] = g4_gemm_f32_avx512,
              [G4_TYPE_BF16] = g4_gemm_bf16_avx512,
              [G4_TYPE_Q8_0] = g4_gemm_q8_avx512vnni,
              [G4_TYPE_Q8_ROW] = g4_gemm_q8_avx512vnni,
              G4_NIBBLES_OF(avx512vnni) },
    .quantize = g4_quantize_avx2,
    .attend = g4_attend_avx512,
    .round16 = g4_round16_avx2,
    .attend16 = g4_attend16_avx512vnni,
    .rmsnorm = g4_rmsnorm_avx2,
    .geglu = g4_geglu_avx2,
    .softcap = g4_softcap_avx2,
};

#endif /* GEMMA4_KERNELS_AVX512_H */
