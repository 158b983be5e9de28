/* kernels_avxvnni.h - AVX-VNNI: the quantised products of AVX2 with vpdpbusd; everything else is AVX2's. Compilers that
 * do not know it leave the table out. */
#ifndef GEMMA4_KERNELS_AVXVNNI_H
#define GEMMA4_KERNELS_AVXVNNI_H

#include "kernels_avx2.h"

#if (defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11)
#define G4_SIMD_AVXVNNI 1
#define G4_AVXVNNI __attribute__((target("avx2,fma,f16c,avxvnni")))

static int g4_usable_avxvnni(void) { return (g4_x86_features() & G4_HAS_AVXVNNI) != 0; }

/* vpdpbusd adds four products of unsigned x signed bytes to a 32-bit lane: one row, no 16-bit step. 8 registers hold
 * the sums of 4 tokens, which begin at what the stored numbers have too much, times sum(q); 4 the weights of two
 * chunks, one the inputs; float sums rest in y. Bound of many tokens: the pipes that multiply, 32 products an
 * instruction; of one token: memory. */
G4_BODY G4_AVXVNNI void g4_run_avxvnni(__m256i a0[4], __m256i a1[4], const __m256i even[2], const __m256i odd[2],
                                       const int8_t *q, size_t q_stride, const int n)
{
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        const __m256i v = g4_four_avx2(q + (size_t)i * q_stride);
        a0[i] = _mm256_dpbusd_avx_epi32(a0[i], even[0], v);
        a1[i] = _mm256_dpbusd_avx_epi32(a1[i], even[1], v);
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        const __m256i v = g4_four_avx2(q + (size_t)i * q_stride + 4);
        a0[i] = _mm256_dpbusd_avx_epi32(a0[i], odd[0], v);
        a1[i] = _mm256_dpbusd_avx_epi32(a1[i], odd[1], v);
    }
}

/* q8_0: unsigned when the top bit is flipped (w + 128). */
G4_BODY G4_AVXVNNI void g4_q8_tile_avxvnni(G4_TILE_ARGS_CONST, const g4_scale_type scales)
{
    const __m256i flip = _mm256_set1_epi8(-128);
    const size_t steps = (size_t)x->steps;
    const int8_t *q = x->q + (size_t)t * 64 * steps;
    const float *d = x->d + (size_t)t * 2 * steps;
    const int16_t *sum = x->sum + (size_t)t * 4 * steps;
    for (int i = 0; i < n && s0 == 0; i++) g4_start_avx2(y + (size_t)i * y_stride);
    for (int s = s0; s < s1; s++)
        for (int b = 0; b < g4_bytes_blocks(scales); b++) {
            const size_t block = (size_t)(g4_bytes_blocks(scales) * s + b);
            const uint8_t *at = g4_bytes_scales(w, block, scales);
            const __m256i *weights = (const void *)g4_bytes_weights(w, block, scales);
            g4_ahead_avx2((const uint8_t *)weights, g4_bytes_step(scales) / g4_bytes_blocks(scales));
            __m256i a0[4], a1[4];
#pragma GCC unroll 4
            for (int i = 0; i < n; i++)
                a0[i] = a1[i] = _mm256_set1_epi32(-128 * g4_block_sum(sum + (size_t)i * 4 * steps, block));
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++, weights += 4) {
                const __m256i even[2] = { _mm256_xor_si256(_mm256_load_si256(weights), flip),
                                          _mm256_xor_si256(_mm256_load_si256(weights + 1), flip) };
                const __m256i odd[2] = { _mm256_xor_si256(_mm256_load_si256(weights + 2), flip),
                                         _mm256_xor_si256(_mm256_load_si256(weights + 3), flip) };
                g4_run_avxvnni(a0, a1, even, odd, q + 32 * block + 8 * (size_t)r, 64 * steps, n);
            }
            const __m256 sw0 = g4_scales_avx2(at, 0, scales), sw1 = g4_scales_avx2(at, 1, scales);
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                const __m256 dx = _mm256_set1_ps(d[(size_t)i * 2 * steps + block]);
                const __m256 f0 = _mm256_cvtepi32_ps(a0[i]), f1 = _mm256_cvtepi32_ps(a1[i]);
                g4_add_block_avx2(y + (size_t)i * y_stride, sw0, sw1, dx, f0, f1);
            }
        }
}
G4_GEMM_BYTES(g4_gemm_q8_avxvnni, G4_AVXVNNI, 4, G4_AHEAD_AVX2, g4_q8_tile_avxvnni)

/* Types of nibbles. Halves of a block with integer scales are summed one behind the other. */
G4_BODY G4_AVXVNNI void g4_nibbles_tile_avxvnni(G4_TILE_ARGS_CONST, const g4_type type, const g4_scale_type scales)
{
    const g4_nibbles *shape = &g4_nibbles_of[type];
    const int in_halves = shape->kind == G4_SCALES_K_HALVES;
    const size_t steps = (size_t)x->steps;
    const int8_t *q = x->q + (size_t)t * 64 * steps;
    const float *d = x->d + (size_t)t * 2 * steps;
    const int16_t *sum = x->sum + (size_t)t * 4 * steps;
    for (int i = 0; i < n && s0 == 0; i++) g4_start_avx2(y + (size_t)i * y_stride);
    for (int s = s0; s < s1; s++)
        for (int b = 0; b < shape->blocks; b++) {
            const uint8_t *p = w + (size_t)s * (size_t)shape->bytes;
            const g4_nibbles_at at = g4_nibbles_block(p, shape, b);
            const size_t block = (size_t)shape->blocks * (size_t)s + (size_t)b;
            g4_ahead_avx2(p + shape->bytes / shape->blocks * b, shape->bytes / shape->blocks);
            __m256i a0[4], a1[4], first0[4], first1[4];
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                __m256i even[2], odd[2];
                for (int i = 0; i < n && (r == 0 || (r == 2 && in_halves)); i++) {
                    const int16_t *si = sum + (size_t)i * 4 * steps;
                    if (r == 2) first0[i] = a0[i], first1[i] = a1[i];
                    const int total = in_halves ? si[2 * block + (size_t)(r / 2)] : g4_block_sum(si, block);
                    a0[i] = a1[i] = _mm256_set1_epi32(-shape->middle * total);
                }
                g4_unpack_avx2(even, odd, &at, r, shape);
                g4_run_avxvnni(a0, a1, even, odd, q + 32 * block + 8 * (size_t)r, 64 * steps, n);
            }
            __m256 scale[2], shift[2];
            g4_nibbles_scales_avx2(scale, shift, p, b, shape, scales);
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                const float di = d[(size_t)i * 2 * steps + block];
                const int total = g4_block_sum(sum + (size_t)i * 4 * steps, block);
                if (in_halves) {
                    const uint8_t *by = p + G4_STEP_SCALES + 32 * b;
                    a0[i] = _mm256_add_epi32(_mm256_mullo_epi32(first0[i], g4_eight_int8_avx2(by)),
                                             _mm256_mullo_epi32(a0[i], g4_eight_int8_avx2(by + 16)));
                    a1[i] = _mm256_add_epi32(_mm256_mullo_epi32(first1[i], g4_eight_int8_avx2(by + 8)),
                                             _mm256_mullo_epi32(a1[i], g4_eight_int8_avx2(by + 24)));
                }
                g4_add_nibbles_avx2(y + (size_t)i * y_stride, scale, shift, _mm256_set1_ps(di),
                                    _mm256_set1_ps(di * (float)total), _mm256_cvtepi32_ps(a0[i]),
                                    _mm256_cvtepi32_ps(a1[i]), g4_has_mins(shape));
            }
        }
}
G4_GEMM_NIBBLES(avxvnni, G4_AVXVNNI, 4, G4_AHEAD_AVX2, g4_nibbles_tile_avxvnni)

static const g4_kernels g4_kernels_avxvnni = {
    .isa = "avxvnni",
    .usable = g4_usable_avxvnni,
    .gemm = { [G4_TYPE_F32] = g4_gemm_f32_avx2,
              [G4_TYPE_BF16] = g4_gemm_bf16_avx2,
              [G4_TYPE_Q8_0] = g4_gemm_q8_avxvnni,
              [G4_TYPE_Q8_ROW] = g4_gemm_q8_avxvnni,
              G4_NIBBLES_OF(avxvnni) },
    .quantize = g4_quantize_avx2,
    .attend = g4_attend_avx2,
    .round16 = g4_round16_avx2,
    .attend16 = g4_attend16_avx2,
    .rmsnorm = g4_rmsnorm_avx2,
    .geglu = g4_geglu_avx2,
    .softcap = g4_softcap_avx2,
};
#endif

#endif /* GEMMA4_KERNELS_AVXVNNI_H */
