/* kernels_neon.h - aarch64: NEON, and with the dot product: 32 registers of 4 floats, in the order of kernels.c. Bounds
 * are counted, not measured: these tables were run in an emulator only. */
#ifndef GEMMA4_KERNELS_NEON_H
#define GEMMA4_KERNELS_NEON_H

#include "kernels_walks.h"

#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif

static int g4_usable_neon(void) { return 1; } /* part of aarch64 */

/* ---- Products -----------------------------------------------------------------------------------------------------
 *
 * A register is one chunk of 4 rows. */

/* f32 and bf16: one chain per row and token, columns in order. 4 tokens x 16 rows: 16 registers of sums, 8 of the
 * weights of two columns. Bound: the units that multiply, 4 multiply-adds an instruction. */
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
G4_GEMM_FLOAT(g4_gemm_f32_neon, , 4, g4_float_tile_neon, G4_TYPE_F32)
G4_GEMM_FLOAT(g4_gemm_bf16_neon, , 4, g4_float_tile_neon, G4_TYPE_BF16)

G4_BODY float32x4_t g4_scales_neon(const uint8_t *p, int k, g4_scale_type type) /* of rows 4 k to 4 k + 3 */
{
    if (type == G4_SCALE_NONE) return vld1q_f32((const float *)(const void *)p + 4 * k);
    const uint16x4_t h = vld1_u16((const uint16_t *)(const void *)p + 4 * k);
    if (type == G4_SCALE_F16) return vcvt_f32_f16(vreinterpret_f16_u16(h));
    return vreinterpretq_f32_u32(vshll_n_u16(h, 16));
}
G4_BODY int8x8_t g4_four_neon(const int8_t *q)
{
    int32_t v;
    memcpy(&v, q, 4);
    return vreinterpret_s8_s32(vdup_n_s32(v));
}
/* y of 16 rows and n tokens starts at 0, then each block adds fma(scale_w * d, sum, y) to one token's, and where
 * weights are shifted fma(shift, d * sum(q), y). */
G4_BODY void g4_start_neon(float *y, size_t y_stride, const int n)
{
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 4; k++) vst1q_f32(y + (size_t)i * y_stride + 4 * k, vdupq_n_f32(0));
}
G4_BODY void g4_block_add_neon(float *y, const float32x4_t scale[4], float d, const int32x4_t sums[4])
{
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++)
        vst1q_f32(y + 4 * k, vfmaq_f32(vld1q_f32(y + 4 * k), vmulq_n_f32(scale[k], d), vcvtq_f32_s32(sums[k])));
}
G4_BODY void g4_shift_add_neon(float *y, const float32x4_t shift[4], float sum)
{
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) vst1q_f32(y + 4 * k, vfmaq_n_f32(vld1q_f32(y + 4 * k), shift[k], sum));
}

/* Sums of a block of 16 rows for n <= 2 tokens, each of whose inputs takes 64 * steps. q8_0: two products at a time
 * in 16 bits (2 * 128 * 127 = 32512), then added in pairs to 32: 16 registers of sums, 2 of weights, 2 of inputs.
 * Bound: 3 instructions for 16 products. */
G4_BODY void g4_q8_sums_neon(int32x4_t sums[2][4], const uint8_t *weights, const int8_t *q, size_t steps, size_t block,
                             const int n)
{
    int32x4_t a[2][8]; /* two rows each: 2 partial sums a row */
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 8; k++) a[i][k] = vdupq_n_s32(0);
#pragma GCC unroll 4
    for (int c = 0; c < 8; c += 2)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            const int8_t *wc = (const int8_t *)weights + 64 * c + 16 * k;
            const int8x16_t v0 = vld1q_s8(wc), v1 = vld1q_s8(wc + 64);
#pragma GCC unroll 2
            for (int i = 0; i < n; i++) {
                const int8_t *qi = q + (size_t)i * 64 * steps + 32 * block + 4 * (size_t)c;
                const int8x8_t e = g4_four_neon(qi), o = g4_four_neon(qi + 4);
                a[i][2 * k] = vpadalq_s16(a[i][2 * k], vmlal_s8(vmull_s8(vget_low_s8(v0), e), vget_low_s8(v1), o));
                a[i][2 * k + 1] =
                    vpadalq_s16(a[i][2 * k + 1], vmlal_s8(vmull_s8(vget_high_s8(v0), e), vget_high_s8(v1), o));
            }
        }
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 4; k++) sums[i][k] = vpaddq_s32(a[i][2 * k], a[i][2 * k + 1]);
}

G4_BODY void g4_q8_tile_neon(G4_TILE_ARGS_CONST, const g4_scale_type scales)
{
    const size_t steps = (size_t)x->steps;
    const int8_t *q = x->q + (size_t)t * 64 * steps;
    const float *d = x->d + (size_t)t * 2 * steps;
    if (s0 == 0) g4_start_neon(y, y_stride, n);
    for (int s = s0; s < s1; s++)
        for (int b = 0; b < g4_bytes_blocks(scales); b++) {
            const size_t block = (size_t)(g4_bytes_blocks(scales) * s + b);
            const uint8_t *at = g4_bytes_scales(w, block, scales);
            int32x4_t sums[2][4];
            g4_q8_sums_neon(sums, g4_bytes_weights(w, block, scales), q, steps, block, n);
            const float32x4_t scale[4] = { g4_scales_neon(at, 0, scales), g4_scales_neon(at, 1, scales),
                                           g4_scales_neon(at, 2, scales), g4_scales_neon(at, 3, scales) };
            for (int i = 0; i < n; i++)
                g4_block_add_neon(y + (size_t)i * y_stride, scale, d[(size_t)i * 2 * steps + block], sums[i]);
        }
}
G4_GEMM_BYTES(g4_gemm_q8_neon, , 2, 0, g4_q8_tile_neon)

/* Types of nibbles: rows 4 k to 4 k + 3 of chunks 2 run and 2 run + 1 of a block, as they are stored. */
G4_BODY void g4_unpack_neon(int8x16_t *even, int8x16_t *odd, const g4_nibbles_at *at, const int run, const int k,
                            const g4_nibbles *shape)
{
    const int high_bits = shape->high_bits;
    if (shape->low_bits == 0) {
        const uint8x16_t h = vld1q_u8(at->high + G4_PLANE * (run / 2) + 16 * k), two = vdupq_n_u8(3);
        const int8_t first = (int8_t)(-4 * (run % 2));
        *even = vreinterpretq_s8_u8(vandq_u8(vshlq_u8(h, vdupq_n_s8(first)), two));
        *odd = vreinterpretq_s8_u8(vandq_u8(vshlq_u8(h, vdupq_n_s8((int8_t)(first - 2))), two));
        return;
    }
    const uint8x16_t v = vld1q_u8(at->q + 64 * run + 16 * k);
    uint8x16_t e = vandq_u8(v, vdupq_n_u8(15)), o = vshrq_n_u8(v, 4);
    if (high_bits) {
        const int plane = high_bits == 1 ? 0 : run / 2, first = high_bits == 1 ? 2 * run : 4 * (run % 2);
        const uint8x16_t h = vld1q_u8(at->high + G4_PLANE * plane + 16 * k);
        const uint8x16_t bits = vdupq_n_u8(high_bits == 1 ? 16 : 48);
        e = vorrq_u8(e, vandq_u8(vshlq_u8(h, vdupq_n_s8((int8_t)(4 - first))), bits));
        o = vorrq_u8(o, vandq_u8(vshlq_u8(h, vdupq_n_s8((int8_t)(4 - first - high_bits))), bits));
    }
    *even = vreinterpretq_s8_u8(e);
    *odd = vreinterpretq_s8_u8(o);
}

G4_BODY float32x4_t g4_four_bytes_neon(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(v))))));
}
G4_BODY int32x4_t g4_four_int8_neon(const uint8_t *p)
{
    return vmovl_s16(vget_low_s16(vmovl_s8(g4_four_neon((const int8_t *)p))));
}
/* What the scales of a block say of its rows: weights are scale * (q - middle) + shift. */
G4_BODY void g4_nibbles_scales_neon(float32x4_t scale[4], float32x4_t shift[4], const uint8_t *step, int b,
                                    const g4_nibbles *shape, const g4_scale_type scales)
{
    const int of_block = shape->kind <= G4_SCALES_MIN ? b * G4_BLOCK_SCALES : 0;
    const uint8_t *bytes = step + G4_STEP_SCALES + 32 * b;
    const float middle = (float)shape->middle;
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        scale[k] = g4_scales_neon(step + of_block, k, scales);
        if (shape->kind == G4_SCALES_MIN)
            shift[k] = vfmaq_n_f32(g4_scales_neon(step + G4_STEP_SCALES + of_block, k, scales), scale[k], middle);
        if (shape->kind == G4_SCALES_K_MIN) {
            const float32x4_t dmin = g4_scales_neon(step + G4_BLOCK_SCALES, k, scales);
            scale[k] = vmulq_f32(scale[k], g4_four_bytes_neon(bytes + 4 * k));
            const float32x4_t m = vmulq_f32(dmin, g4_four_bytes_neon(bytes + 16 + 4 * k));
            shift[k] = vfmaq_n_f32(vnegq_f32(m), scale[k], middle);
        }
    }
}

/* Sums of a block for n <= 2 tokens, or of half of it: runs [r0, r1). All of a block's products fit in 16 bits with 4
 * and 5 bits (8 * 31 * 127), those of half with 6 (4 * 63 * 127). Registers as above. Bound: one instruction for 8
 * products, and the nibbles' share. */
G4_BODY void g4_nibbles_sums_neon(int32x4_t sums[][4], const g4_nibbles_at *at, const int r0, const int r1,
                                  const int8_t *q, size_t q_stride, const g4_nibbles *shape, const int n)
{
    int16x8_t h[2][8]; /* two rows each: 4 partial sums a row */
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 8; k++) h[i][k] = vdupq_n_s16(0);
#pragma GCC unroll 4
    for (int r = r0; r < r1; r++)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            int8x16_t even, odd;
            g4_unpack_neon(&even, &odd, at, r, k, shape);
#pragma GCC unroll 2
            for (int i = 0; i < n; i++) {
                const int8_t *qi = q + (size_t)i * q_stride + 8 * r;
                const int8x8_t e = g4_four_neon(qi), o = g4_four_neon(qi + 4);
                h[i][2 * k] = vmlal_s8(vmlal_s8(h[i][2 * k], vget_low_s8(even), e), vget_low_s8(odd), o);
                h[i][2 * k + 1] = vmlal_s8(vmlal_s8(h[i][2 * k + 1], vget_high_s8(even), e), vget_high_s8(odd), o);
            }
        }
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 4; k++) sums[i][k] = vpaddq_s32(vpaddlq_s16(h[i][2 * k]), vpaddlq_s16(h[i][2 * k + 1]));
}

/* The frame of the tiles of nibbles for at most TOKENS tokens: SUMS are those of a block, or of its halves, which then
 * have integer scales; middle * sum(q) is taken off. */
#define G4_NIBBLES_TILE_NEON(NAME, TARGET, TOKENS, SUMS)                                                               \
    G4_BODY TARGET void NAME(G4_TILE_ARGS_CONST, const g4_type type, const g4_scale_type scales)                       \
    {                                                                                                                  \
        const g4_nibbles *shape = &g4_nibbles_of[type];                                                                \
        const size_t steps = (size_t)x->steps;                                                                         \
        const float *d = x->d + (size_t)t * 2 * steps;                                                                 \
        const int16_t *sum = x->sum + (size_t)t * 4 * steps;                                                           \
        if (s0 == 0) g4_start_neon(y, y_stride, n);                                                                    \
        for (int s = s0; s < s1; s++)                                                                                  \
            for (int b = 0; b < shape->blocks; b++) {                                                                  \
                const uint8_t *p = w + (size_t)s * (size_t)shape->bytes, *by = p + G4_STEP_SCALES + 32 * b;            \
                const g4_nibbles_at at = g4_nibbles_block(p, shape, b);                                                \
                const size_t block = (size_t)shape->blocks * (size_t)s + (size_t)b;                                    \
                const int8_t *q = x->q + (size_t)t * 64 * steps + 32 * block;                                          \
                const int in_halves = shape->kind == G4_SCALES_K_HALVES;                                               \
                int32x4_t sums[TOKENS][4], second[TOKENS][4];                                                          \
                SUMS(sums, &at, 0, in_halves ? 2 : 4, q, 64 * steps, shape, n);                                        \
                if (in_halves) SUMS(second, &at, 2, 4, q, 64 * steps, shape, n);                                       \
                float32x4_t scale[4], shift[4];                                                                        \
                g4_nibbles_scales_neon(scale, shift, p, b, shape, scales);                                             \
                for (int i = 0; i < n; i++) {                                                                          \
                    const int16_t *si = sum + (size_t)i * 4 * steps + 2 * block;                                       \
                    const float di = d[(size_t)i * 2 * steps + block];                                                 \
                    const int total = si[0] + si[1], of_first = in_halves ? si[0] : total;                             \
                    for (int k = 0; k < 4; k++) {                                                                      \
                        sums[i][k] = vsubq_s32(sums[i][k], vdupq_n_s32(shape->middle * of_first));                     \
                        if (!in_halves) continue;                                                                      \
                        second[i][k] = vsubq_s32(second[i][k], vdupq_n_s32(shape->middle * si[1]));                    \
                        sums[i][k] = vmulq_s32(sums[i][k], g4_four_int8_neon(by + 4 * k));                             \
                        sums[i][k] = vmlaq_s32(sums[i][k], second[i][k], g4_four_int8_neon(by + 16 + 4 * k));          \
                    }                                                                                                  \
                    g4_block_add_neon(y + (size_t)i * y_stride, scale, di, sums[i]);                                   \
                    if (g4_has_mins(shape)) g4_shift_add_neon(y + (size_t)i * y_stride, shift, di * (float)total);     \
                }                                                                                                      \
            }                                                                                                          \
    }
G4_NIBBLES_TILE_NEON(g4_nibbles_tile_neon, , 2, g4_nibbles_sums_neon)
G4_GEMM_NIBBLES(neon, , 2, 0, g4_nibbles_tile_neon)

/* ---- Rounding of inputs ---------------------------------------------------------------------------------------- */

/* A block is 8 registers: their largest magnitude, then the rounded products with its inverse, narrowed to bytes.
 * Bound: the latencies of the maximum, the division and the sum across lanes. */
static void g4_quantize_neon(int8_t *q, float *d, int16_t *sum, const float *x, int cols)
{
    for (int b = 0; b < cols / 32; b++, x += 32, q += 32) {
        float32x4_t v[8], all = vdupq_n_f32(0);
        for (int k = 0; k < 8; k++) {
            v[k] = vld1q_f32(x + 4 * k);
            all = vmaxnmq_f32(all, vabsq_f32(v[k]));
        }
        const float max = vmaxvq_f32(all);
        d[b] = max / 127.0f;
        if (!(max >= G4_QUANT_MIN && max <= FLT_MAX)) {
            if (max < G4_QUANT_MIN) d[b] = 0.0f;
            sum[2 * b] = sum[2 * b + 1] = 0;
            memset(q, 0, 32);
            continue;
        }
        const float inverse = 127.0f / max;
        int32x4_t total[2] = { vdupq_n_s32(0), vdupq_n_s32(0) };
        int16x8_t half[4];
        for (int k = 0; k < 8; k += 2) {
            const int32x4_t i0 = vcvtnq_s32_f32(vmulq_n_f32(v[k], inverse)),
                            i1 = vcvtnq_s32_f32(vmulq_n_f32(v[k + 1], inverse));
            total[k / 4] = vaddq_s32(total[k / 4], vaddq_s32(i0, i1));
            half[k / 2] = vcombine_s16(vqmovn_s32(i0), vqmovn_s32(i1));
        }
        vst1q_s8(q, vcombine_s8(vqmovn_s16(half[0]), vqmovn_s16(half[1])));
        vst1q_s8(q + 16, vcombine_s8(vqmovn_s16(half[2]), vqmovn_s16(half[3])));
        sum[2 * b] = (int16_t)vaddvq_s32(total[0]);
        sum[2 * b + 1] = (int16_t)vaddvq_s32(total[1]);
    }
}

/* ---- Attention ------------------------------------------------------------------------------------------------- */

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

/* 6 queries x 16 positions or dims keep 24 sums in registers, 4 hold 16 keys or values. Bound: the units that
 * multiply, 4 multiply-adds an instruction. */
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
    for (int c = 0; c < dims; c++, k += k_stride, fetch.next += fetch.step) {
        __builtin_prefetch(fetch.next);
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
    for (int j = j0; j < j1; j++, v += v_stride, fetch.next += fetch.step) {
        __builtin_prefetch(fetch.next);
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
/* Four cached numbers from element `offset` on, times scale for q8_0; and one. */
G4_BODY float32x4_t g4_widen_neon(const void *data, size_t offset, const g4_kv_type type, float32x4_t scale)
{
    if (type == G4_KV_F16) return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *)data + offset)));
    if (type == G4_KV_F32) return vld1q_f32((const float *)data + offset);
    const int8x8_t b = g4_four_neon((const int8_t *)data + offset);
    return vmulq_f32(vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(b)))), scale);
}
G4_BODY float g4_widen_one_neon(const void *data, size_t offset, const g4_kv_type type, float scale)
{
    if (type == G4_KV_F16)
        return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(((const uint16_t *)data)[offset]))), 0);
    return type == G4_KV_F32 ? ((const float *)data)[offset] : (float)((const int8_t *)data)[offset] * scale;
}
static void g4_widen_keys_neon(float *out, const g4_kv_tile *tile, g4_kv_type type, int d0, int dims, int c)
{
    for (int r = 0; r < 16; r += 4) {
        const float32x4_t scale = type == G4_KV_Q8_0 ? vld1q_f32(tile->k_scale + 16 * c + r) : vdupq_n_f32(0);
        const size_t offset = (size_t)d0 * G4_PAGE + 16 * (size_t)c + (size_t)r;
        for (size_t d = 0; d < (size_t)dims; d++)
            vst1q_f32(out + 16 * d + r, g4_widen_neon(tile->k, offset + d * G4_PAGE, type, scale));
    }
}
static void g4_widen_values_neon(float *out, const g4_kv_tile *tile, g4_kv_type type, int head_dim, int d0, int width,
                                 int j0, int j1)
{
    for (int j = j0; j < j1; j++) {
        float *row = out + G4_STRIP_WIDTH * j;
        const size_t offset = (size_t)j * (size_t)head_dim + (size_t)d0;
        const float scale = type == G4_KV_Q8_0 ? tile->v_scale[j] : 0.0f;
        int c = 0;
        for (; c + 4 <= width; c += 4)
            vst1q_f32(row + c, g4_widen_neon(tile->v, offset + (size_t)c, type, vdupq_n_f32(scale)));
        for (; c < width; c++) row[c] = g4_widen_one_neon(tile->v, offset + (size_t)c, type, scale);
        for (; c < G4_STRIP_WIDTH; c++) row[c] = 0.0f;
    }
}
/* Four scores a register, as in AVX2. */
static void g4_softmax_neon(float *s, int n, const int *lo, const int *hi, float *m, float *l, float *alpha)
{
    for (int i = 0; i < n; i++) {
        float *row = s + i * G4_PAGE;
        for (int j = 0; j < lo[i]; j++) row[j] = -INFINITY;
        for (int j = hi[i]; j < G4_PAGE; j++) row[j] = -INFINITY;
        float32x4_t maxima = vld1q_f32(row);
        for (int j = 4; j < G4_PAGE; j += 4) maxima = vmaxq_f32(maxima, vld1q_f32(row + j));
        const float m0 = m[i], max = vmaxvq_f32(maxima);
        m[i] = max > m0 ? max : m0;
        alpha[i] = m0 - m[i];
    }
    for (int i = n; i % 4; i++) alpha[i] = 0;
    for (int i = 0; i < n; i += 4) vst1q_f32(alpha + i, g4_exp_neon(vld1q_f32(alpha + i)));
    for (int i = 0; i < n; i++) {
        const float32x4_t max = vdupq_n_f32(m[i]);
        float32x4_t sum = vdupq_n_f32(0);
        for (float *row = s + i * G4_PAGE, *end = row + G4_PAGE; row < end; row += 4) {
            const float32x4_t p = g4_exp_neon(vsubq_f32(vld1q_f32(row), max));
            vst1q_f32(row, p);
            sum = vaddq_f32(sum, p);
        }
        l[i] = l[i] * alpha[i] + vaddvq_f32(sum);
    }
}
G4_ATTEND(neon, , 6, G4_NOT_WIDENING, g4_widen_keys_neon, g4_widen_values_neon, g4_softmax_neon)

/* ---- Norms and activations ------------------------------------------------------------------------------------- */

/* The squares are summed in 16 lanes of 4 registers. Bound: loads and stores of the second pass. */
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

static const g4_kernels g4_kernels_neon = {
    .isa = "neon",
    .usable = g4_usable_neon,
    .gemm = { [G4_TYPE_F32] = g4_gemm_f32_neon,
              [G4_TYPE_BF16] = g4_gemm_bf16_neon,
              [G4_TYPE_Q8_0] = g4_gemm_q8_neon,
              [G4_TYPE_Q8_ROW] = g4_gemm_q8_neon,
              G4_NIBBLES_OF(neon) },
    .quantize = g4_quantize_neon,
    .attend = g4_attend_neon,
    .rmsnorm = g4_rmsnorm_neon,
    .geglu = g4_geglu_neon,
    .softcap = g4_softcap_neon,
};

/* ---- With the dot product -------------------------------------------------------------------------------------- */

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

/* sdot adds four signed products to a 32-bit lane, which is a row: 4 tokens x 16 rows keep 16 registers of sums, 8 hold
 * the weights of two chunks, one the inputs. Bound: 16 products an instruction. */
G4_BODY G4_DOTPROD void g4_run_dotprod(int32x4_t sums[][4], const int8x16_t even[4], const int8x16_t odd[4],
                                       const int8_t *q, size_t q_stride, const int n)
{
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        const int8x8_t v = vld1_s8(q + (size_t)i * q_stride);
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++)
            sums[i][k] = vdotq_lane_s32(vdotq_lane_s32(sums[i][k], even[k], v, 0), odd[k], v, 1);
    }
}
G4_BODY void g4_no_sums_neon(int32x4_t sums[][4], const int n)
{
#pragma GCC unroll 4
    for (int i = 0; i < n; i++)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) sums[i][k] = vdupq_n_s32(0);
}

G4_BODY G4_DOTPROD void g4_q8_tile_dotprod(G4_TILE_ARGS_CONST, const g4_scale_type scales)
{
    const size_t steps = (size_t)x->steps;
    const float *d = x->d + (size_t)t * 2 * steps;
    if (s0 == 0) g4_start_neon(y, y_stride, n);
    for (int s = s0; s < s1; s++)
        for (int b = 0; b < g4_bytes_blocks(scales); b++) {
            const size_t block = (size_t)(g4_bytes_blocks(scales) * s + b);
            const uint8_t *at = g4_bytes_scales(w, block, scales);
            const int8_t *weights = (const int8_t *)g4_bytes_weights(w, block, scales);
            const int8_t *q = x->q + (size_t)t * 64 * steps + 32 * block;
            int32x4_t sums[4][4];
            g4_no_sums_neon(sums, n);
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) { /* two chunks */
                int8x16_t even[4], odd[4];
#pragma GCC unroll 4
                for (int k = 0; k < 4; k++) {
                    even[k] = vld1q_s8(weights + 128 * r + 16 * k);
                    odd[k] = vld1q_s8(weights + 128 * r + 64 + 16 * k);
                }
                g4_run_dotprod(sums, even, odd, q + 8 * r, 64 * steps, n);
            }
            const float32x4_t scale[4] = { g4_scales_neon(at, 0, scales), g4_scales_neon(at, 1, scales),
                                           g4_scales_neon(at, 2, scales), g4_scales_neon(at, 3, scales) };
            for (int i = 0; i < n; i++)
                g4_block_add_neon(y + (size_t)i * y_stride, scale, d[(size_t)i * 2 * steps + block], sums[i]);
        }
}
G4_GEMM_BYTES(g4_gemm_q8_dotprod, G4_DOTPROD, 4, 0, g4_q8_tile_dotprod)

G4_BODY G4_DOTPROD void g4_nibbles_sums_dotprod(int32x4_t sums[][4], const g4_nibbles_at *at, const int r0,
                                                const int r1, const int8_t *q, size_t q_stride, const g4_nibbles *shape,
                                                const int n)
{
    g4_no_sums_neon(sums, n);
#pragma GCC unroll 4
    for (int r = r0; r < r1; r++) {
        int8x16_t even[4], odd[4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) g4_unpack_neon(&even[k], &odd[k], at, r, k, shape);
        g4_run_dotprod(sums, even, odd, q + 8 * r, q_stride, n);
    }
}
G4_NIBBLES_TILE_NEON(g4_nibbles_tile_dotprod, G4_DOTPROD, 4, g4_nibbles_sums_dotprod)
G4_GEMM_NIBBLES(dotprod, G4_DOTPROD, 4, 0, g4_nibbles_tile_dotprod)

static const g4_kernels g4_kernels_dotprod = {
    .isa = "dotprod",
    .usable = g4_usable_dotprod,
    .gemm = { [G4_TYPE_F32] = g4_gemm_f32_neon,
              [G4_TYPE_BF16] = g4_gemm_bf16_neon,
              [G4_TYPE_Q8_0] = g4_gemm_q8_dotprod,
              [G4_TYPE_Q8_ROW] = g4_gemm_q8_dotprod,
              G4_NIBBLES_OF(dotprod) },
    .quantize = g4_quantize_neon,
    .attend = g4_attend_neon,
    .rmsnorm = g4_rmsnorm_neon,
    .geglu = g4_geglu_neon,
    .softcap = g4_softcap_neon,
};
#endif

#endif /* GEMMA4_KERNELS_NEON_H */
