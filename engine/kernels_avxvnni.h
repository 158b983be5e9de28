/* kernels_avxvnni.h - AVX-VNNI: the quantised products of AVX2 with vpdpbusd; everything else is AVX2's. Compilers that
 * do not know it leave the table out. */
#ifndef GEMMA4_KERNELS_AVXVNNI_H
#define GEMMA4_KERNELS_AVXVNNI_H

#include "kernels_avx2.h"

#if (defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && __GNUC__ >= 11)
#define G4_SIMD_AVXVNNI 1
#define G4_AVXVNNI __attribute__((target("avx2,fma,f16c,avxvnni")))

static int g4_usable_avxvnni(void) { return (g4_x86_features() & G4_HAS_AVXVNNI) != 0; }

/* Chunks 2 r and 2 r + 1 of a block as unsigned bytes, rows 0-7 and 8-15 of each: the nibbles of q4_0 are so as they
 * are, the weights of q8_0 when the top bit is flipped (w + 128). */
G4_BODY G4_AVXVNNI void g4_unpack_avxvnni(__m256i even[2], __m256i odd[2], const uint8_t *weights, int r, const int q4)
{
    const __m256i low = _mm256_set1_epi8(15), flip = _mm256_set1_epi8(-128);
    for (int half = 0; half < 2; half++) {
        if (q4) {
            const __m256i v = _mm256_load_si256((const void *)(weights + 64 * r + 32 * half));
            even[half] = _mm256_and_si256(v, low);
            odd[half] = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
        } else {
            const __m256i *v = (const void *)(weights + 128 * r + 32 * half);
            even[half] = _mm256_xor_si256(_mm256_load_si256(v), flip);
            odd[half] = _mm256_xor_si256(_mm256_load_si256(v + 2), flip);
        }
    }
}

/* vpdpbusd adds four products of unsigned x signed bytes to a 32-bit lane: one row, no 16-bit step. A block starts at
 * -offset * sum(q). 8 registers hold the sums of 4 tokens, 4 the weights of two chunks, one the inputs; float sums rest
 * in y. Bound of many tokens: the pipes that multiply, 32 products an instruction; of one token: memory. */
G4_BODY G4_AVXVNNI void g4_quant_tile_avxvnni(G4_TILE_ARGS_CONST, const int q4, const g4_scale_type scale)
{
    const size_t steps = (size_t)x->steps, step_bytes = q4 ? G4_Q4_STEP : G4_Q8_STEP;
    const int8_t *q = x->q + (size_t)t * 64 * steps;
    const float *d = x->d + (size_t)t * 2 * steps;
    const int32_t *sum = x->sum + (size_t)t * 2 * steps;
    for (int i = 0; i < n && s0 == 0; i++) g4_start_avx2(y + (size_t)i * y_stride);
    for (int s = s0; s < s1; s++)
        for (int b = 0; b < 2; b++) {
            const uint8_t *p = w + (size_t)s * step_bytes;
            const uint8_t *weights = p + G4_STEP_SCALES + (q4 ? G4_Q4_BLOCK : G4_Q8_BLOCK) * b;
            const size_t block = 2 * (size_t)s + (size_t)b;
            if (n == 1) g4_ahead_avx2(p + step_bytes / 2 * (size_t)b, (int)step_bytes / 2);
            __m256i a0[4], a1[4];
#pragma GCC unroll 4
            for (int i = 0; i < n; i++)
                a0[i] = a1[i] = _mm256_set1_epi32((q4 ? -8 : -128) * sum[(size_t)i * 2 * steps + block]);
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                __m256i even[2], odd[2];
                g4_unpack_avxvnni(even, odd, weights, r, q4);
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) {
                    const __m256i v = g4_four_avx2(q + (size_t)i * 64 * steps + 32 * block + 8 * (size_t)r);
                    a0[i] = _mm256_dpbusd_avx_epi32(a0[i], even[0], v);
                    a1[i] = _mm256_dpbusd_avx_epi32(a1[i], even[1], v);
                }
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) {
                    const __m256i v = g4_four_avx2(q + (size_t)i * 64 * steps + 32 * block + 8 * (size_t)r + 4);
                    a0[i] = _mm256_dpbusd_avx_epi32(a0[i], odd[0], v);
                    a1[i] = _mm256_dpbusd_avx_epi32(a1[i], odd[1], v);
                }
            }
            const uint8_t *scales = p + G4_BLOCK_SCALES * b;
            const __m256 sw0 = g4_scales_avx2(scales, scale), sw1 = g4_scales_avx2(scales + 16, scale);
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                const __m256 dx = _mm256_set1_ps(d[(size_t)i * 2 * steps + block]);
                const __m256 f0 = _mm256_cvtepi32_ps(a0[i]), f1 = _mm256_cvtepi32_ps(a1[i]);
                g4_add_block_avx2(y + (size_t)i * y_stride, sw0, sw1, dx, f0, f1);
            }
        }
}
G4_BODY G4_AVXVNNI void g4_q8_tile_avxvnni(G4_TILE_ARGS_CONST, const g4_scale_type scale)
{
    g4_quant_tile_avxvnni(y, y_stride, w, x, t, n, s0, s1, 0, scale);
}
G4_GEMM_QUANT(g4_gemm_q8_avxvnni, G4_AVXVNNI, 4, g4_q8_tile_avxvnni)

G4_BODY G4_AVXVNNI void g4_q4_tile_avxvnni(G4_TILE_ARGS_CONST, const g4_scale_type scale)
{
    g4_quant_tile_avxvnni(y, y_stride, w, x, t, n, s0, s1, 1, scale);
}
G4_GEMM_QUANT(g4_gemm_q4_avxvnni, G4_AVXVNNI, 4, g4_q4_tile_avxvnni)

static const g4_kernels g4_kernels_avxvnni = {
    .isa = "avxvnni",
    .usable = g4_usable_avxvnni,
    .gemm = { [G4_TYPE_F32] = g4_gemm_f32_avx2,
              [G4_TYPE_BF16] = g4_gemm_bf16_avx2,
              [G4_TYPE_Q8_0] = g4_gemm_q8_avxvnni,
              [G4_TYPE_Q4_0] = g4_gemm_q4_avxvnni },
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
