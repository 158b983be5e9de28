/* kernels_avx2.h - AVX2 with FMA and F16C: 16 registers of 8 floats or 32 bytes, in the order of kernels.c. Of the four
 * vector pipes of a core two multiply; rates below were measured on Zen 3 unless they name another. */
#ifndef GEMMA4_KERNELS_AVX2_H
#define GEMMA4_KERNELS_AVX2_H

#include "kernels_x86.h"

#define G4_AVX2 __attribute__((target("avx2,fma,f16c")))

static int g4_usable_avx2(void) { return (g4_x86_features() & G4_HAS_AVX2) != 0; }

/* ---- Products -----------------------------------------------------------------------------------------------------
 *
 * Tiles of 16 rows x 4 tokens. */

/* f32 and bf16: one chain of fused multiply-adds per row and token, columns in order. 8 registers hold the sums, 4 the
 * weights of two columns; inputs are broadcast from memory. Bound: both units that multiply, 16 multiply-adds a cycle.
 * One token has only two chains, whose latency leaves 4 a cycle. */
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
            even0 = _mm256_load_ps(p), even1 = _mm256_load_ps(p + 8);
            odd0 = _mm256_load_ps(p + 16), odd1 = _mm256_load_ps(p + 24);
        } else {
            const __m256i high = _mm256_set1_epi32((int)0xffff0000u);
            const __m256i w0 = _mm256_load_si256((const void *)(w + 32 * c));
            const __m256i w1 = _mm256_load_si256((const void *)(w + 32 * c + 32));
            even0 = _mm256_castsi256_ps(_mm256_slli_epi32(w0, 16));
            even1 = _mm256_castsi256_ps(_mm256_slli_epi32(w1, 16));
            odd0 = _mm256_castsi256_ps(_mm256_and_si256(w0, high));
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
G4_GEMM_FLOAT(g4_gemm_f32_avx2, G4_AVX2, 4, g4_float_tile_avx2, G4_TYPE_F32)
G4_GEMM_FLOAT(g4_gemm_bf16_avx2, G4_AVX2, 4, g4_float_tile_avx2, G4_TYPE_BF16)

/* Few tokens of a quantised matrix are bound by memory, and a core reads weights faster than it fetches them by itself:
 * it asks for them 2304 bytes ahead, 4 steps of q4_0. One core then reads as fast as a bare sum over memory, 10 to 20 %
 * faster than without; with four tokens a step of E2B takes 20 % less (Zen 3, one thread). Past the end a prefetch does
 * nothing. */
#define G4_AHEAD_AVX2 2304
G4_BODY void g4_ahead_avx2(const uint8_t *p, int n_bytes)
{
    for (int i = 0; i < n_bytes; i += 64) _mm_prefetch((const char *)p + G4_AHEAD_AVX2 + i, _MM_HINT_T0);
}

/* Scales of rows 0-7 or 8-15. */
G4_BODY G4_AVX2 __m256 g4_scales_avx2(const uint8_t *p, int half, g4_scale_type type)
{
    if (type == G4_SCALE_NONE) return _mm256_load_ps((const float *)(const void *)p + 8 * half);
    const __m128i h = _mm_load_si128((const __m128i *)(const void *)p + half);
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

/* q8_0: |w| x sign(x, w) gives pairs of at most 128 * 127 * 2 = 32512, widened to 32 bits after each product. 8
 * registers hold the sums of 4 tokens, 4 a chunk of weights and its magnitudes, one the inputs; float sums rest in y.
 * Bound: three of the four operations for 32 products share the two pipes that multiply, 21 products a cycle. */
G4_BODY G4_AVX2 void g4_q8_tile_avx2(G4_TILE_ARGS_CONST, const g4_scale_type scales)
{
    const __m256i ones = _mm256_set1_epi16(1);
    const size_t steps = (size_t)x->steps;
    const int8_t *q = x->q + (size_t)t * 64 * steps;
    const float *d = x->d + (size_t)t * 2 * steps;
    for (int i = 0; i < n && s0 == 0; i++) g4_start_avx2(y + (size_t)i * y_stride);
    for (int s = s0; s < s1; s++)
        for (int b = 0; b < g4_bytes_blocks(scales); b++) {
            const size_t block = (size_t)(g4_bytes_blocks(scales) * s + b);
            const uint8_t *chunk = g4_bytes_weights(w, block, scales), *at = g4_bytes_scales(w, block, scales);
            g4_ahead_avx2(chunk, g4_bytes_step(scales) / g4_bytes_blocks(scales));
            __m256i a0[4], a1[4];
            for (int i = 0; i < n; i++) a0[i] = a1[i] = _mm256_setzero_si256();
#pragma GCC unroll 8
            for (int c = 0; c < 8; c++) {
                const __m256i w0 = _mm256_load_si256((const void *)(chunk + 64 * c));
                const __m256i w1 = _mm256_load_si256((const void *)(chunk + 64 * c + 32));
                const __m256i m0 = _mm256_abs_epi8(w0), m1 = _mm256_abs_epi8(w1);
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) {
                    const __m256i v = g4_four_avx2(q + (size_t)i * 64 * steps + 32 * block + 4 * (size_t)c);
                    a0[i] = _mm256_add_epi32(
                        a0[i], _mm256_madd_epi16(_mm256_maddubs_epi16(m0, _mm256_sign_epi8(v, w0)), ones));
                    a1[i] = _mm256_add_epi32(
                        a1[i], _mm256_madd_epi16(_mm256_maddubs_epi16(m1, _mm256_sign_epi8(v, w1)), ones));
                    G4_KEEP(a0[i]);
                    G4_KEEP(a1[i]);
                }
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
G4_GEMM_BYTES(g4_gemm_q8_few_avx2, G4_AVX2, 4, G4_AHEAD_AVX2, g4_q8_tile_avx2)

/* Types of nibbles: chunks 2 run and 2 run + 1 of a block as unsigned bytes, rows 0-7 and 8-15 of each. */
G4_BODY G4_AVX2 __m256i g4_shift_avx2(__m256i v, const int left)
{
    return left >= 0 ? _mm256_slli_epi16(v, left) : _mm256_srli_epi16(v, -left);
}
G4_BODY G4_AVX2 void g4_unpack_avx2(__m256i even[2], __m256i odd[2], const g4_nibbles_at *at, const int run,
                                    const g4_nibbles *shape)
{
    const int high_bits = shape->high_bits;
    const __m256i low = _mm256_set1_epi8(15), bits = _mm256_set1_epi8(high_bits == 1 ? 16 : 48);
    for (int half = 0; half < 2; half++) {
        if (shape->low_bits == 0) {
            const __m256i h = _mm256_load_si256((const void *)(at->high + G4_PLANE * (run / 2) + 32 * half));
            even[half] = _mm256_and_si256(g4_shift_avx2(h, -4 * (run % 2)), _mm256_set1_epi8(3));
            odd[half] = _mm256_and_si256(g4_shift_avx2(h, -4 * (run % 2) - 2), _mm256_set1_epi8(3));
            continue;
        }
        const __m256i v = _mm256_load_si256((const void *)(at->q + 64 * run + 32 * half));
        even[half] = _mm256_and_si256(v, low);
        odd[half] = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
        if (high_bits == 0) continue;
        const int plane = high_bits == 1 ? 0 : run / 2, first = high_bits == 1 ? 2 * run : 4 * (run % 2);
        const __m256i h = _mm256_load_si256((const void *)(at->high + G4_PLANE * plane + 32 * half));
        even[half] = _mm256_or_si256(even[half], _mm256_and_si256(g4_shift_avx2(h, 4 - first), bits));
        odd[half] = _mm256_or_si256(odd[half], _mm256_and_si256(g4_shift_avx2(h, 4 - first - high_bits), bits));
    }
}

G4_BODY G4_AVX2 __m256i g4_eight_bytes_avx2(const uint8_t *p) /* as int32 */
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
}
G4_BODY G4_AVX2 __m256i g4_eight_int8_avx2(const uint8_t *p)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p));
}
/* What the scales of a block say of rows 0-7 and 8-15: weights are scale * (q - middle) + shift. */
G4_BODY G4_AVX2 void g4_nibbles_scales_avx2(__m256 scale[2], __m256 shift[2], const uint8_t *step, int b,
                                            const g4_nibbles *shape, const g4_scale_type scales)
{
    const int of_block = shape->kind <= G4_SCALES_MIN ? b * G4_BLOCK_SCALES : 0;
    const uint8_t *bytes = step + G4_STEP_SCALES + 32 * b;
    const __m256 middle = _mm256_set1_ps((float)shape->middle);
    for (int half = 0; half < 2; half++) {
        scale[half] = g4_scales_avx2(step + of_block, half, scales);
        if (shape->kind == G4_SCALES_MIN) {
            const __m256 m = g4_scales_avx2(step + G4_STEP_SCALES + of_block, half, scales);
            shift[half] = _mm256_fmadd_ps(middle, scale[half], m);
        }
        if (shape->kind == G4_SCALES_K_MIN) {
            const __m256 m = _mm256_mul_ps(g4_scales_avx2(step + G4_BLOCK_SCALES, half, scales),
                                           _mm256_cvtepi32_ps(g4_eight_bytes_avx2(bytes + 16 + 8 * half)));
            scale[half] = _mm256_mul_ps(scale[half], _mm256_cvtepi32_ps(g4_eight_bytes_avx2(bytes + 8 * half)));
            shift[half] = _mm256_fmsub_ps(middle, scale[half], m);
        }
    }
}
/* Integer scales of half a block, twice each in 16 bits, of rows 0-7 and 8-15; ones where there are none. */
G4_BODY G4_AVX2 void g4_half_scales_avx2(__m256i by[2], const uint8_t *step, int b, int half, const g4_nibbles *shape)
{
    const __m256i twice = _mm256_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13, 0, 1, 0, 1, 4, 5, 4, 5,
                                           8, 9, 8, 9, 12, 13, 12, 13);
    const uint8_t *bytes = step + G4_STEP_SCALES + 32 * b + 16 * half;
    by[0] = by[1] = _mm256_set1_epi16(1);
    for (int rows = 0; rows < 2 && shape->kind == G4_SCALES_K_HALVES; rows++)
        by[rows] = _mm256_shuffle_epi8(g4_eight_int8_avx2(bytes + 8 * rows), twice);
}

/* y of 16 rows and one token += scale * dx * f + shift * sum, the second where a type has minima. */
G4_BODY G4_AVX2 void g4_add_nibbles_avx2(float *y, const __m256 scale[2], const __m256 shift[2], __m256 dx, __m256 sum,
                                         __m256 f0, __m256 f1, const int has_mins)
{
    __m256 y0 = _mm256_fmadd_ps(_mm256_mul_ps(scale[0], dx), f0, _mm256_loadu_ps(y));
    __m256 y1 = _mm256_fmadd_ps(_mm256_mul_ps(scale[1], dx), f1, _mm256_loadu_ps(y + 8));
    if (has_mins) {
        y0 = _mm256_fmadd_ps(shift[0], sum, y0);
        y1 = _mm256_fmadd_ps(shift[1], sum, y1);
    }
    _mm256_storeu_ps(y, y0);
    _mm256_storeu_ps(y + 8, y1);
}

/* Unsigned numbers x int8 in 16-bit lanes, as many chunks as fit (15 * 127 * 2 * 8, 31 * 127 * 2 * 4, 63 * 127 * 2 *
 * 2), then pairs to 32 bits, times the integer scales of halves, less middle * sum(q). 8 registers hold the sums of 4
 * tokens in 16 bits, 4 the weights of two chunks, and masks and one broadcast fill the rest; float sums rest in y.
 * Bound of q4_0: the number of instructions, 41 products a cycle, of which 33 are reached. */
G4_BODY G4_AVX2 void g4_nibbles_tile_avx2(G4_TILE_ARGS_CONST, const g4_type type, const g4_scale_type scales)
{
    const g4_nibbles *shape = &g4_nibbles_of[type];
    const int fit = 4 >> g4_wide_bits(shape); /* runs */
    const size_t steps = (size_t)x->steps;
    const int8_t *q = x->q + (size_t)t * 64 * steps;
    const float *d = x->d + (size_t)t * 2 * steps;
    const int16_t *sum = x->sum + (size_t)t * 4 * steps;
    for (int i = 0; i < n && s0 == 0; i++) g4_start_avx2(y + (size_t)i * y_stride);
    for (int s = s0; s < s1; s++)
        for (int b = 0; b < shape->blocks; b++) {
            const uint8_t *p = w + (size_t)s * (size_t)shape->bytes;
            const g4_nibbles_at at = g4_nibbles_block(p, shape, b);
            g4_ahead_avx2(p + shape->bytes / shape->blocks * b, shape->bytes / shape->blocks);
            const size_t block = (size_t)shape->blocks * (size_t)s + (size_t)b;
            __m256i a0[4], a1[4], h0[4], h1[4], by[2][2];
            g4_half_scales_avx2(by[0], p, b, 0, shape);
            g4_half_scales_avx2(by[1], p, b, 1, shape);
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                __m256i even[2], odd[2];
                g4_unpack_avx2(even, odd, &at, r, shape);
                for (int i = 0; i < n && r % fit == 0; i++) h0[i] = h1[i] = _mm256_setzero_si256();
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) {
                    const __m256i v = g4_four_avx2(q + (size_t)i * 64 * steps + 32 * block + 8 * (size_t)r);
                    h0[i] = _mm256_add_epi16(h0[i], _mm256_maddubs_epi16(even[0], v));
                    h1[i] = _mm256_add_epi16(h1[i], _mm256_maddubs_epi16(even[1], v));
                    G4_KEEP(h0[i]);
                    G4_KEEP(h1[i]);
                }
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) {
                    const __m256i v = g4_four_avx2(q + (size_t)i * 64 * steps + 32 * block + 8 * (size_t)r + 4);
                    h0[i] = _mm256_add_epi16(h0[i], _mm256_maddubs_epi16(odd[0], v));
                    h1[i] = _mm256_add_epi16(h1[i], _mm256_maddubs_epi16(odd[1], v));
                    G4_KEEP(h0[i]);
                    G4_KEEP(h1[i]);
                }
                if (r % fit < fit - 1) continue;
#pragma GCC unroll 4
                for (int i = 0; i < n; i++) {
                    const __m256i v0 = _mm256_madd_epi16(h0[i], by[r / 2][0]),
                                  v1 = _mm256_madd_epi16(h1[i], by[r / 2][1]);
                    a0[i] = r < fit ? v0 : _mm256_add_epi32(a0[i], v0);
                    a1[i] = r < fit ? v1 : _mm256_add_epi32(a1[i], v1);
                }
            }
            __m256 scale[2], shift[2];
            g4_nibbles_scales_avx2(scale, shift, p, b, shape, scales);
            /* of each row: the scales of both halves, times the middle */
            const __m256i halves0 = _mm256_slli_epi16(_mm256_blend_epi16(by[0][0], by[1][0], 0xaa), 5),
                          halves1 = _mm256_slli_epi16(_mm256_blend_epi16(by[0][1], by[1][1], 0xaa), 5);
#pragma GCC unroll 4
            for (int i = 0; i < n; i++) {
                const int total = g4_block_sum(sum + (size_t)i * 4 * steps, block);
                const float di = d[(size_t)i * 2 * steps + block];
                __m256i off0 = _mm256_set1_epi32(shape->middle * total), off1 = off0;
                if (shape->kind == G4_SCALES_K_HALVES) {
                    const __m256i both = g4_two_avx2(sum + (size_t)i * 4 * steps + 2 * block);
                    off0 = _mm256_madd_epi16(halves0, both), off1 = _mm256_madd_epi16(halves1, both);
                }
                g4_add_nibbles_avx2(y + (size_t)i * y_stride, scale, shift, _mm256_set1_ps(di),
                                    _mm256_set1_ps(di * (float)total),
                                    _mm256_cvtepi32_ps(_mm256_sub_epi32(a0[i], off0)),
                                    _mm256_cvtepi32_ps(_mm256_sub_epi32(a1[i], off1)), g4_has_mins(shape));
            }
        }
}
G4_GEMM_NIBBLES(few_avx2, G4_AVX2, 4, G4_AHEAD_AVX2, g4_nibbles_tile_avx2)

/* Many tokens. A panel is a strip of a group's weights in the form that the products read, made once for up to 64
 * tokens while the next strip is fetched, and what a strip of the tokens' inputs needs, made once for all groups. */
#define G4_PANEL_TOKENS 64
#define G4_PANEL_MIN_TOKENS 12 /* fewer do not pay for it */
typedef struct {
    int blocks;      /* the most that a strip has */
    int step_blocks; /* of a group in the file */
    int block_bytes; /* likewise, with its scales */
    /* blocks [b0, b0 + n) of tokens [t0, t0 + tokens); the last token again where it does not end a tile of 4 */
    void (*inputs)(void *panel, const g4_acts *x, int t0, int tokens, int b0, int n);
    /* blocks [b0, b0 + n) of a group */
    void (*weights)(void *panel, const uint8_t *group, int b0, int n, g4_scale_type type);
    /* y of tokens [t, t + 4) of the panel += the strip; starts y when `first` */
    void (*tile)(float *const y[4], const void *panel, int t, int blocks, int first);
} g4_panel_ops;

static void g4_panel_walk_avx2(const g4_panel_ops *ops, void *panel, G4_GEMM_ARGS)
{
    const int blocks = ops->step_blocks * w->steps, strips = (blocks + ops->blocks - 1) / ops->blocks;
    const int strip = (w->steps + strips - 1) / strips * ops->step_blocks; /* blocks: the strips about equal */
    float spare[16];                                                       /* y of tokens a last tile does not have */
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
                    for (int i = bytes * t / n; i < bytes * (t + 4) / n; i += 64) _mm_prefetch(next + i, _MM_HINT_T0);
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
 * end a block the bound is 29 products a cycle against 20. 8 registers hold the sums of 4 tokens, 4 the weights of a
 * chunk, 2 its inputs.
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

G4_BODY G4_AVX2 __m256i g4_even_avx2(__m256i v) { return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8); }
G4_BODY G4_AVX2 __m256i g4_odd_avx2(__m256i v) { return _mm256_srai_epi16(v, 8); }

G4_AVX2 static void g4_panel8_weights_avx2(void *panel, const uint8_t *group, int b0, int n, g4_scale_type type)
{
    g4_panel8 *p = panel;
    for (int b = 0; b < n; b++) {
        const uint8_t *scales = g4_bytes_scales(group, (size_t)(b0 + b), type);
        const __m256i *in = (const void *)g4_bytes_weights(group, (size_t)(b0 + b), type);
        _mm256_store_ps(p->scale[b], g4_scales_avx2(scales, 0, type));
        _mm256_store_ps(p->scale[b] + 8, g4_scales_avx2(scales, 1, type));
        for (int half = 0; half < 2; half++) {
            __m256i start = _mm256_set1_epi32(G4_PANEL_OFFSET_BITS);
            for (int c = 0; c < 8; c++) {
                const __m256i v = _mm256_load_si256(in + 2 * c + half);
                const __m256i even = g4_even_avx2(v), odd = g4_odd_avx2(v);
                _mm256_store_si256((void *)p->w[b][c][2 * half], even);
                _mm256_store_si256((void *)p->w[b][c][2 * half + 1], odd);
                start = _mm256_sub_epi32(start, _mm256_madd_epi16(even, odd));
            }
            _mm256_store_si256((void *)(p->start[b] + 8 * half), start);
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
            q[i] = (const void *)(x->q + 32 * row);
            d[i] = x->d + row;
        }
        for (int b = 0; b < n; b++) {
            __m256i *out = (void *)p->x[t / 4][b], pairs[4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                const __m256i v = _mm256_loadu_si256(q[i] + b);
                const __m256i even = g4_even_avx2(v), odd = g4_odd_avx2(v);
                _mm256_store_si256(out + 2 * i, even);
                _mm256_store_si256(out + 2 * i + 1, odd);
                pairs[i] = _mm256_madd_epi16(even, odd);
            }
            const __m256i halves =
                _mm256_hadd_epi32(_mm256_hadd_epi32(pairs[0], pairs[1]), _mm256_hadd_epi32(pairs[2], pairs[3]));
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
    const __m256i *w = (const void *)weights;
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
        const __m256i *start = (const void *)p->start[b];
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
    const int blocks = g4_bytes_blocks(w->scale_type);
    const g4_panel_ops ops = { G4_PANEL8_BLOCKS,
                               blocks,
                               g4_bytes_step(w->scale_type) / blocks,
                               g4_panel8_inputs_avx2,
                               g4_panel8_weights_avx2,
                               g4_panel8_tile_avx2 };
    g4_panel8 p;
    if (t1 - t0 < G4_PANEL_MIN_TOKENS)
        g4_gemm_q8_few_avx2(y, y_stride, w, x, t0, t1, g0, g1);
    else
        g4_panel_walk_avx2(&ops, &p, y, y_stride, w, x, t0, t1, g0, g1);
}

/* Types of nibbles for many tokens: a strip's weights become bytes and its scales floats once. Sums stay in 16 bits,
 * two of a row and each of half its inputs, which begin at -middle * sum(q), so that what is left at the end fits: 16
 * inputs of 5 bits (16 * 127 * 16), 8 of 6 bits. What both of a row sum to, 8 * 127 * 32 at most, fits with 4 bits:
 * all may be taken from one of them, and a shift adds it to the other; vpmaddwd would do it in fewer operations, but
 * of the pipes that multiply. 8 registers hold the sums of 4 tokens, 2 a chunk of weights, one its inputs. Bound: 2
 * multiplications and 2 additions for 64 products, and what ends a block. */
#define G4_PANEL4_BLOCKS 16 /* 8 KB */
typedef struct {
    _Alignas(64) uint8_t w[G4_PANEL4_BLOCKS][8][2][32]; /* (blocks, chunks, rows 0-7 and 8-15) */
    __m256i half[G4_PANEL4_BLOCKS][2][2];               /* integer scales of halves, as g4_half_scales_avx2 has them */
    __m256 scale[G4_PANEL4_BLOCKS][2], shift[G4_PANEL4_BLOCKS][2];
    const int8_t *q[G4_PANEL_TOKENS]; /* the strip of each token's inputs ... */
    const float *d[G4_PANEL_TOKENS];  /* ... and of their scales */
    int32_t start[G4_PANEL_TOKENS][G4_PANEL4_BLOCKS]
                 [2];                             /* of a row's two sums, in halves of a block if there are any */
    float sum[G4_PANEL_TOKENS][G4_PANEL4_BLOCKS]; /* d * sum(q) */
} g4_panel4;

G4_BODY G4_AVX2 void g4_panel4_weights_avx2(g4_panel4 *p, const uint8_t *group, int b0, int n, g4_scale_type scales,
                                            const g4_type type)
{
    const g4_nibbles *shape = &g4_nibbles_of[type];
    for (int b = 0; b < n; b++) {
        const uint8_t *step = group + (b0 + b) / shape->blocks * shape->bytes;
        const int block = (b0 + b) % shape->blocks;
        const g4_nibbles_at at = g4_nibbles_block(step, shape, block);
        __m256i *out = (void *)p->w[b];
        g4_nibbles_scales_avx2(p->scale[b], p->shift[b], step, block, shape, scales);
        for (int half = 0; half < 2 && shape->kind == G4_SCALES_K_HALVES; half++)
            g4_half_scales_avx2(p->half[b][half], step, block, half, shape);
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++, out += 4) {
            __m256i even[2], odd[2];
            g4_unpack_avx2(even, odd, &at, r, shape);
            _mm256_store_si256(out, even[0]);
            _mm256_store_si256(out + 1, even[1]);
            _mm256_store_si256(out + 2, odd[0]);
            _mm256_store_si256(out + 3, odd[1]);
        }
    }
}

/* Sums of 16 inputs for the two sums of a row: inputs 0 and 1 of each chunk, and 2 and 3, 16 bits each. */
G4_BODY G4_AVX2 __m128i g4_pair_sums_avx2(__m128i q)
{
    const __m128i v = _mm_maddubs_epi16(_mm_set1_epi8(1), q);
    const __m128i two = _mm_add_epi16(v, _mm_shuffle_epi32(v, 0x4e));
    return _mm_add_epi16(two, _mm_shuffle_epi32(two, 0xb1));
}

G4_BODY G4_AVX2 void g4_panel4_inputs_avx2(g4_panel4 *p, const g4_acts *x, int t0, int tokens, int b0, int n,
                                           const g4_type type)
{
    const g4_nibbles *shape = &g4_nibbles_of[type];
    const __m128i middle = _mm_set1_epi16((int16_t)-shape->middle);
    for (int t = 0; t < (tokens + 3) / 4 * 4; t++) {
        const size_t row = (size_t)(t0 + g4_min_int(t, tokens - 1)) * 2 * (size_t)x->steps + (size_t)b0;
        p->q[t] = x->q + 32 * row;
        p->d[t] = x->d + row;
        for (int b = 0; b < n; b++) {
            const int total = g4_block_sum(x->sum, row + (size_t)b);
            if (g4_has_mins(shape)) p->sum[t][b] = p->d[t][b] * (float)total;
            if (g4_wide_bits(shape) == 0) {
                p->start[t][b][0] = total * -shape->middle * 65536;
                continue;
            }
            const __m128i *q = (const void *)(p->q[t] + 32 * b);
            const __m128i first = g4_pair_sums_avx2(_mm_loadu_si128(q)),
                          second = g4_pair_sums_avx2(_mm_loadu_si128(q + 1));
            const __m128i start = shape->high_bits == 1 ? _mm_add_epi16(first, second) : first;
            p->start[t][b][0] = _mm_cvtsi128_si32(_mm_mullo_epi16(start, middle));
            p->start[t][b][1] = _mm_cvtsi128_si32(_mm_mullo_epi16(second, middle));
        }
    }
}

G4_BODY G4_AVX2 __m256i g4_halves_avx2(__m256i v) /* the upper 16 bits of v + (v << 16), signed */
{
    return _mm256_srai_epi32(_mm256_add_epi32(v, _mm256_slli_epi32(v, 16)), 16);
}

G4_BODY G4_AVX2 void g4_panel4_tile_avx2(float *const y[4], const g4_panel4 *p, int t, int blocks, int first,
                                         const g4_type type)
{
    const g4_nibbles *shape = &g4_nibbles_of[type];
    const int8_t *const q[] = { p->q[t], p->q[t + 1], p->q[t + 2], p->q[t + 3] };
    const float *const d[] = { p->d[t], p->d[t + 1], p->d[t + 2], p->d[t + 3] };
    const __m256i ones = _mm256_set1_epi16(1);
    for (int i = 0; i < 4 && first; i++) g4_start_avx2(y[i]);
    for (int b = 0; b < blocks; b++) {
        const __m256i *w = (const void *)p->w[b];
        __m256i a0[4], a1[4], first0[4], first1[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) a0[i] = a1[i] = _mm256_set1_epi32(p->start[t + i][b][0]);
#pragma GCC unroll 8
        for (int c = 0; c < 8; c++) {
            if (c == 4 && shape->kind == G4_SCALES_K_HALVES)
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    first0[i] = _mm256_madd_epi16(a0[i], p->half[b][0][0]);
                    first1[i] = _mm256_madd_epi16(a1[i], p->half[b][0][1]);
                    a0[i] = a1[i] = _mm256_set1_epi32(p->start[t + i][b][1]);
                }
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
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            if (g4_wide_bits(shape) == 0) {
                a0[i] = g4_halves_avx2(a0[i]), a1[i] = g4_halves_avx2(a1[i]);
            } else if (shape->kind != G4_SCALES_K_HALVES) {
                a0[i] = _mm256_madd_epi16(a0[i], ones), a1[i] = _mm256_madd_epi16(a1[i], ones);
            } else {
                a0[i] = _mm256_add_epi32(first0[i], _mm256_madd_epi16(a0[i], p->half[b][1][0]));
                a1[i] = _mm256_add_epi32(first1[i], _mm256_madd_epi16(a1[i], p->half[b][1][1]));
            }
            g4_add_nibbles_avx2(y[i], p->scale[b], p->shift[b], _mm256_broadcast_ss(d[i] + b),
                                _mm256_broadcast_ss(&p->sum[t + i][b]), _mm256_cvtepi32_ps(a0[i]),
                                _mm256_cvtepi32_ps(a1[i]), g4_has_mins(shape));
        }
    }
}

/* g4_gemm_NAME_avx2 of a type; few tokens go to the tiles above. */
#define G4_PANEL_NIBBLES(NAME, TYPE)                                                                                   \
    G4_AVX2 static void g4_panel_##NAME##_inputs_avx2(void *panel, const g4_acts *x, int t0, int tokens, int b0,       \
                                                      int n)                                                           \
    {                                                                                                                  \
        g4_panel4_inputs_avx2(panel, x, t0, tokens, b0, n, TYPE);                                                      \
    }                                                                                                                  \
    G4_AVX2 static void g4_panel_##NAME##_weights_avx2(void *panel, const uint8_t *group, int b0, int n,               \
                                                       g4_scale_type scales)                                           \
    {                                                                                                                  \
        g4_panel4_weights_avx2(panel, group, b0, n, scales, TYPE);                                                     \
    }                                                                                                                  \
    G4_AVX2 static void g4_panel_##NAME##_tile_avx2(float *const y[4], const void *panel, int t, int blocks,           \
                                                    int first)                                                         \
    {                                                                                                                  \
        g4_panel4_tile_avx2(y, panel, t, blocks, first, TYPE);                                                         \
    }                                                                                                                  \
    G4_AVX2 static void g4_gemm_##NAME##_avx2(G4_GEMM_ARGS)                                                            \
    {                                                                                                                  \
        const g4_nibbles *shape = &g4_nibbles_of[TYPE];                                                                \
        const g4_panel_ops ops = { G4_PANEL4_BLOCKS,                                                                   \
                                   shape->blocks,                                                                      \
                                   shape->bytes / shape->blocks,                                                       \
                                   g4_panel_##NAME##_inputs_avx2,                                                      \
                                   g4_panel_##NAME##_weights_avx2,                                                     \
                                   g4_panel_##NAME##_tile_avx2 };                                                      \
        g4_panel4 p;                                                                                                   \
        if (t1 - t0 < G4_PANEL_MIN_TOKENS)                                                                             \
            g4_gemm_##NAME##_few_avx2(y, y_stride, w, x, t0, t1, g0, g1);                                              \
        else                                                                                                           \
            g4_panel_walk_avx2(&ops, &p, y, y_stride, w, x, t0, t1, g0, g1);                                           \
    }
G4_PANEL_NIBBLES(q4_0, G4_TYPE_Q4_0)
G4_PANEL_NIBBLES(q4_1, G4_TYPE_Q4_1)
G4_PANEL_NIBBLES(q5_0, G4_TYPE_Q5_0)
G4_PANEL_NIBBLES(q5_1, G4_TYPE_Q5_1)
G4_PANEL_NIBBLES(q4_k, G4_TYPE_Q4_K)
G4_PANEL_NIBBLES(q5_k, G4_TYPE_Q5_K)
G4_PANEL_NIBBLES(q6_k, G4_TYPE_Q6_K)
G4_PANEL_NIBBLES(q2_row, G4_TYPE_Q2_ROW)
G4_PANEL_NIBBLES(q4_row, G4_TYPE_Q4_ROW)

/* ---- Products with inputs of 16 bits -------------------------------------------------------------------------- */

/* To the nearest, half to even; at most 32767 each way. */
G4_BODY G4_AVX2 __m256i g4_int32_avx2(__m256 x)
{
    const __m256 min = _mm256_set1_ps(-32767.0f), max = _mm256_set1_ps(32767.0f);
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(x, min), max));
}
G4_BODY G4_AVX2 __m256i g4_int16_avx2(__m256 a, __m256 b)
{
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(g4_int32_avx2(a), g4_int32_avx2(b)), 0xd8);
}

G4_BODY G4_AVX2 int32_t g4_hsum_int_avx2(__m256i v)
{
    __m128i a = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    a = _mm_add_epi32(a, _mm_shuffle_epi32(a, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32(a, 0xb1)));
}

/* Weights and inputs of 16 bits (g4_product16_fn), by the same identity, with integer sums over all columns of a
 * strip, which wait in y for the next strip. An input plus a weight fits in 16 bits; everything else may wrap,
 * because what is left at the end does not. Registers are those of the q8_0 panel; with nothing to do at the end of a
 * block, the bound is four operations for 32 products on four pipes, 32 a cycle, and 29 with their loads. */
#define G4_PANEL16_BLOCKS 24 /* the most that a strip has: 24 KB */
#define G4_PANEL16_GROUPS 16 /* whose strips take turns: their y, 64 KB, stays in L2 */
typedef struct {
    _Alignas(64) int16_t w[G4_PANEL16_BLOCKS][8][4][16];                /* as in g4_panel8 */
    int32_t start[16];                                                  /* less the row's pairs of the strip */
    int32_t pairs[G4_PANEL_TOKENS];                                     /* of all columns of a token */
    float unit[G4_PANEL16_GROUPS][16], per_unit[G4_PANEL16_GROUPS][16]; /* of the rows, and 128 / unit */
    float spare[16];                                                    /* y of tokens a last tile does not have */
    float min, max;                                                     /* of what y may be in the end */
} g4_panel16;

G4_BODY G4_AVX2 void g4_panel16_units_avx2(float *unit, float *per_unit, const uint8_t *group, int blocks,
                                           const g4_scale_type type)
{
    __m256 squares[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };
    for (int b = 0; b < blocks; b++)
        for (int half = 0; half < 2; half++) {
            const __m256 s = g4_scales_avx2(g4_bytes_scales(group, (size_t)b, type), half, type);
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
            const uint8_t *scales = g4_bytes_scales(group, (size_t)(b0 + b), type);
            const __m256i *in = (const void *)g4_bytes_weights(group, (size_t)(b0 + b), type);
            const __m256 s = _mm256_mul_ps(g4_scales_avx2(scales, half, type), _mm256_loadu_ps(per_unit + 8 * half));
            const __m256i once = g4_int32_avx2(s);
            const __m256i m = _mm256_blend_epi16(once, _mm256_slli_epi32(once, 16), 0xaa); /* for two inputs */
            for (int c = 0; c < 8; c++) {
                const __m256i v = _mm256_load_si256(in + 2 * c + half);
                const __m256i even = _mm256_mulhrs_epi16(_mm256_slli_epi16(v, 8), m);
                const __m256i odd = _mm256_mulhrs_epi16(_mm256_and_si256(v, high), m);
                _mm256_store_si256((void *)p->w[b][c][2 * half], even);
                _mm256_store_si256((void *)p->w[b][c][2 * half + 1], odd);
                start = _mm256_sub_epi32(start, _mm256_madd_epi16(even, odd));
            }
        }
        _mm256_storeu_si256((void *)(p->start + 8 * half), start);
    }
}

/* Sum of the products of an even and its odd input, of one token. */
G4_BODY G4_AVX2 int32_t g4_pairs16_avx2(const int16_t *x, int blocks)
{
    __m256i pairs = _mm256_setzero_si256();
    for (int b = 0; b < blocks; b++, x += 32)
        pairs = _mm256_add_epi32(
            pairs, _mm256_madd_epi16(_mm256_loadu_si256((const void *)x), _mm256_loadu_si256((const void *)(x + 16))));
    return g4_hsum_int_avx2(pairs);
}

/* y of 4 tokens += the strip, as integers; starts y where there are `pairs`, makes it numbers where there is `unit`. */
G4_AVX2 static void g4_panel16_tile_avx2(float *const y[4], const g4_panel16 *p, const int16_t *const rows[4],
                                         int blocks, const int32_t *pairs, const float *unit, const float x_unit[4])
{
    const __m256i *start = (const void *)p->start;
    const int16_t *x[4] = { rows[0], rows[1], rows[2], rows[3] };
    __m256i a0[4], a1[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m256i *yi = (const void *)y[i];
        const __m256i first = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_set1_epi32(pairs ? pairs[i] : 0));
        a0[i] = _mm256_add_epi32(_mm256_loadu_si256(start), pairs ? first : _mm256_loadu_si256(yi));
        a1[i] = _mm256_add_epi32(_mm256_loadu_si256(start + 1), pairs ? first : _mm256_loadu_si256(yi + 1));
    }
    for (int b = 0; b < blocks; b++) {
        g4_panel_block_avx2(a0, a1, p->w[b][0][0], x);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) x[i] += 32;
    }
    const __m256 min = _mm256_set1_ps(p->min), max = _mm256_set1_ps(p->max);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        if (unit) {
            const __m256 u = _mm256_set1_ps(x_unit[i]);
            const __m256 u0 = _mm256_mul_ps(_mm256_loadu_ps(unit), u), u1 = _mm256_mul_ps(_mm256_loadu_ps(unit + 8), u);
            const __m256 y0 = _mm256_mul_ps(_mm256_cvtepi32_ps(a0[i]), u0); /* NaN stays below */
            const __m256 y1 = _mm256_mul_ps(_mm256_cvtepi32_ps(a1[i]), u1);
            _mm256_storeu_ps(y[i], _mm256_min_ps(max, _mm256_max_ps(min, y0)));
            _mm256_storeu_ps(y[i] + 8, _mm256_min_ps(max, _mm256_max_ps(min, y1)));
        } else {
            _mm256_storeu_si256((void *)y[i], a0[i]);
            _mm256_storeu_si256((void *)(y[i] + 8), a1[i]);
        }
    }
}

/* Blocks [b, b + nb) of group g for n tokens. */
G4_BODY G4_AVX2 void g4_panel16_strip_avx2(g4_panel16 *p, float *y, size_t y_stride, const g4_matrix *w,
                                           const int16_t *x, const float *x_unit, int n, int g, int b, int nb,
                                           const g4_scale_type type)
{
    const int blocks = g4_bytes_blocks(type) * w->steps, nth = g % G4_PANEL16_GROUPS;
    const int block_bytes = g4_bytes_step(type) / g4_bytes_blocks(type);
    const uint8_t *group = w->data + (size_t)g * w->group_bytes;
    const char *next = (const char *)group + w->group_bytes + (size_t)(b * block_bytes);
    if (b == 0) g4_panel16_units_avx2(p->unit[nth], p->per_unit[nth], group, blocks, type);
    g4_panel16_weights_avx2(p, group, p->per_unit[nth], b, nb, type);
    const int ahead = nb * block_bytes / (64 * ((n + 3) / 4)) + 1; /* lines of the next group for each tile */
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
                                          const float *x_unit, int n, float min, float max, const g4_scale_type type)
{
    const int blocks = g4_bytes_blocks(type) * w->steps, strips = (blocks + G4_PANEL16_BLOCKS - 1) / G4_PANEL16_BLOCKS;
    const int strip = (w->steps + strips - 1) / strips * g4_bytes_blocks(type); /* blocks: the strips about equal */
    g4_panel16 p;
    p.min = min;
    p.max = max;
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
                                      const float *x_unit, int n, float min, float max)
{
    if (w->scale_type == G4_SCALE_F16)
        g4_panel16_walk_avx2(y, y_stride, w, x, x_unit, n, min, max, G4_SCALE_F16);
    else if (w->scale_type == G4_SCALE_BF16)
        g4_panel16_walk_avx2(y, y_stride, w, x, x_unit, n, min, max, G4_SCALE_BF16);
    else
        g4_panel16_walk_avx2(y, y_stride, w, x, x_unit, n, min, max, G4_SCALE_NONE);
}

/* ---- Rounding of inputs ---------------------------------------------------------------------------------------- */

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

/* A block is 4 registers: their largest magnitude, then the rounded products with its inverse, packed to bytes. Bound:
 * the latencies of the maximum, the division and the sum across lanes. */
G4_AVX2 static void g4_quantize_avx2(int8_t *q, float *d, int16_t *sum, const float *x, int cols)
{
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* undoes the lane order of the packs */
    for (int b = 0; b < cols / 32; b++, x += 32, q += 32) {
        const __m256 x0 = _mm256_loadu_ps(x), x1 = _mm256_loadu_ps(x + 8), x2 = _mm256_loadu_ps(x + 16),
                     x3 = _mm256_loadu_ps(x + 24);
        const float max =
            g4_hmax_avx2(_mm256_max_ps(_mm256_max_ps(_mm256_and_ps(x0, magnitude), _mm256_and_ps(x1, magnitude)),
                                       _mm256_max_ps(_mm256_and_ps(x2, magnitude), _mm256_and_ps(x3, magnitude))));
        d[b] = max / 127.0f;
        if (!(max >= G4_QUANT_MIN && max <= FLT_MAX)) {
            if (max < G4_QUANT_MIN) d[b] = 0.0f;
            sum[2 * b] = sum[2 * b + 1] = 0;
            memset(q, 0, 32);
            continue;
        }
        const __m256 inverse = _mm256_set1_ps(127.0f / max);
        const __m256i i0 = _mm256_cvtps_epi32(_mm256_mul_ps(x0, inverse)),
                      i1 = _mm256_cvtps_epi32(_mm256_mul_ps(x1, inverse));
        const __m256i i2 = _mm256_cvtps_epi32(_mm256_mul_ps(x2, inverse)),
                      i3 = _mm256_cvtps_epi32(_mm256_mul_ps(x3, inverse));
        const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(i0, i1), _mm256_packs_epi32(i2, i3));
        const __m256i bytes = _mm256_permutevar8x32_epi32(packed, order);
        _mm256_storeu_si256((void *)q, bytes);
        /* Of the bytes, which are in bounds also where x is no number: each half sums its 16. */
        __m256i s = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes), _mm256_set1_epi16(1));
        s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0x4e));
        s = _mm256_add_epi32(s, _mm256_shuffle_epi32(s, 0xb1));
        sum[2 * b] = (int16_t)_mm_cvtsi128_si32(_mm256_castsi256_si128(s));
        sum[2 * b + 1] = (int16_t)_mm_cvtsi128_si32(_mm256_extracti128_si256(s, 1));
    }
}

/* The first pass sums squares in 2 registers and takes the maximum in a third, the second splits even and odd inputs by
 * shifts. Bound: the chain of additions of the first. */
G4_AVX2 static void g4_quantize16_avx2(int16_t *q, float *unit, const float *x, int cols)
{
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 part0 = _mm256_setzero_ps(), part1 = part0, max = part0;
    for (int i = 0; i < cols; i += 16) {
        const __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + 8);
        part0 = _mm256_add_ps(part0, _mm256_mul_ps(a, a));
        part1 = _mm256_add_ps(part1, _mm256_mul_ps(b, b));
        max = _mm256_max_ps(_mm256_and_ps(b, magnitude), _mm256_max_ps(_mm256_and_ps(a, magnitude), max));
    }
    const float norm = sqrtf(g4_hsum_avx2(_mm256_add_ps(part0, part1)));
    *unit = fmaxf(fmaxf(norm / G4_NORM_PRODUCT16, g4_hmax_avx2(max) / (float)G4_MAX_FACTOR16), FLT_MIN);
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
        __m256i *out = (void *)(q + b);
        _mm256_storeu_si256(out, _mm256_permute4x64_epi64(_mm256_packs_epi32(even[0], even[1]), 0xd8));
        _mm256_storeu_si256(out + 1, _mm256_permute4x64_epi64(_mm256_packs_epi32(odd[0], odd[1]), 0xd8));
    }
}

/* ---- Attention ------------------------------------------------------------------------------------------------- */

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

/* Eight cached numbers from element `offset` on, times scale for q8_0. */
G4_BODY G4_AVX2 __m256 g4_widen_avx2(const void *data, size_t offset, const g4_kv_type type, __m256 scale)
{
    if (type == G4_KV_F16) return _mm256_cvtph_ps(_mm_loadu_si128((const void *)((const uint16_t *)data + offset)));
    if (type == G4_KV_F32) return _mm256_loadu_ps((const float *)data + offset);
    const __m128i b = _mm_loadl_epi64((const void *)((const int8_t *)data + offset));
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)), scale);
}

/* 6 queries x 16 positions, or 6 queries x 16 dims, keep 12 sums in registers; 2 more hold 16 keys or values, one a
 * number of a query. Keys and values come from a strip (float32, `strip` NULL), or from the tile and are kept in a
 * strip. Bound: both units that multiply, 16 multiply-adds a cycle, of which 86 % are reached; fewer than 4 queries
 * have too few chains to hide the latency of an addition. */
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
    size_t offset = 0;
    for (int c = 0; c < dims; c++, offset += k_stride, fetch.next += fetch.step) {
        __builtin_prefetch(fetch.next);
        const __m256 k0 = g4_widen_avx2(k, offset, type, s0), k1 = g4_widen_avx2(k, offset + 8, type, s1);
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
    size_t offset = (size_t)j0 * v_stride;
    for (int j = j0; j < j1; j++, offset += v_stride, fetch.next += fetch.step) {
        __builtin_prefetch(fetch.next);
        const __m256 scale = type == G4_KV_Q8_0 ? _mm256_broadcast_ss(scales + j) : _mm256_setzero_ps();
        const __m256 v0 = g4_widen_avx2(v, offset, type, scale), v1 = g4_widen_avx2(v, offset + 8, type, scale);
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
        const size_t offset = (size_t)j * (size_t)head_dim + (size_t)d0;
        if (type == G4_KV_Q8_0) scale = _mm256_broadcast_ss(tile->v_scale + j);
        if (width == G4_STRIP_WIDTH) {
#pragma GCC unroll 4
            for (int c = 0; c < G4_STRIP_WIDTH; c += 8)
                _mm256_store_ps(row + c, g4_widen_avx2(tile->v, offset + (size_t)c, type, scale));
            continue;
        }
        int c = 0;
        for (; c + 8 <= width; c += 8)
            _mm256_store_ps(row + c, g4_widen_avx2(tile->v, offset + (size_t)c, type, scale));
        for (; c < width; c++)
            row[c] = type == G4_KV_F32   ? ((const float *)tile->v)[offset + (size_t)c]
                     : type == G4_KV_F16 ? _cvtsh_ss(((const uint16_t *)tile->v)[offset + (size_t)c])
                                         : (float)((const int8_t *)tile->v)[offset + (size_t)c] * tile->v_scale[j];
        for (; c < G4_STRIP_WIDTH; c++) row[c] = 0.0f;
    }
}
/* Values that no product widens on its way: a strip that ends within 16 dims. Bound: its loads and stores. */
G4_AVX2 static void g4_widen_values_avx2(float *out, const g4_kv_tile *tile, g4_kv_type type, int head_dim, int d0,
                                         int width, int j0, int j1)
{
    if (type == G4_KV_F16)
        g4_widen_rows_avx2(out, tile, G4_KV_F16, head_dim, d0, width, j0, j1);
    else if (type == G4_KV_F32)
        g4_widen_rows_avx2(out, tile, G4_KV_F32, head_dim, d0, width, j0, j1);
    else
        g4_widen_rows_avx2(out, tile, G4_KV_Q8_0, head_dim, d0, width, j0, j1);
}

/* The largest score of a row of 64. */
G4_BODY G4_AVX2 float g4_row_max_avx2(const float *row)
{
    __m256 max = _mm256_load_ps(row);
    for (int j = 8; j < G4_PAGE; j += 8) max = _mm256_max_ps(max, _mm256_load_ps(row + j));
    return g4_hmax_avx2(max);
}
/* Scores of a row of 64 to e^(score - max); returns their sum. */
G4_BODY G4_AVX2 float g4_row_exp_avx2(float *row, float max)
{
    const __m256 maxima = _mm256_set1_ps(max);
    __m256 sum = _mm256_setzero_ps();
    for (const float *end = row + G4_PAGE; row < end; row += 8) {
        const __m256 p = g4_exp_avx2(_mm256_sub_ps(_mm256_load_ps(row), maxima));
        _mm256_store_ps(row, p);
        sum = _mm256_add_ps(sum, p);
    }
    return g4_hsum_avx2(sum);
}

/* Eight scores a register. Bound: the 8 multiplications of each exponential, on two pipes. */
G4_AVX2 static void g4_softmax_avx2(float *s, int n, const int *lo, const int *hi, float *m, float *l, float *alpha)
{
    for (int i = 0; i < n; i++) {
        float *row = s + i * G4_PAGE;
        for (int j = 0; j < lo[i]; j++) row[j] = -INFINITY;
        for (int j = hi[i]; j < G4_PAGE; j++) row[j] = -INFINITY;
        const float m0 = m[i], max = g4_row_max_avx2(row);
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
        _mm256_storeu_si256((void *)(y + i), g4_int16_avx2(_mm256_mul_ps(_mm256_loadu_ps(x + i), by),
                                                           _mm256_mul_ps(_mm256_loadu_ps(x + i + 8), by)));
    for (; i < n; i++) y[i] = g4_to_int16(x[i] * inverse);
}

/* Attention in 16 bits: g4_attend16_fn, by the same identity as the panels. 4 queries x 16 positions or dims keep 8
 * sums in registers, 4 hold keys or values; a step takes four dims or four positions. Bound as that of the panels: four
 * operations for 32 products on four pipes. */
typedef struct {
    _Alignas(64) float s[G4_QUERY_BLOCK * G4_PAGE];     /* (queries, 64): scores, then e^(score - m) */
    _Alignas(64) int16_t w[G4_QUERY_BLOCK * G4_PAGE];   /* likewise: what that is in units of its query */
    float shrink[G4_QUERY_BLOCK], unit[G4_QUERY_BLOCK]; /* exp(m - m'), unit of the weights */
} g4_attend16_work;
typedef struct {
    g4_attend16_work work;
    _Alignas(64) int32_t key_pairs[G4_PAGE], value_pairs[G4_MAX_HEAD_DIM]; /* sums of w0 w1 */
    int32_t query_pairs[G4_QUERY_BLOCK], weight_pairs[G4_QUERY_BLOCK];     /* sums of x0 x1 */
} g4_attend16_pairs;

/* The pairs of n columns of y (2 * steps, columns, 2). */
G4_BODY G4_AVX2 void g4_pairs_down16_avx2(int32_t *pairs, const int16_t *y, int y_stride, int n, int steps)
{
    for (int c = 0; c < n; c += 8) {
        __m256i sum = _mm256_setzero_si256();
        const int16_t *p = y + 2 * c;
        for (int k = 0; k < steps; k++, p += 2 * y_stride)
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_loadu_si256((const void *)p),
                                                          _mm256_loadu_si256((const void *)(p + y_stride))));
        _mm256_store_si256((void *)(pairs + c), sum);
    }
}
/* The pairs of a row of n inputs, a multiple of 4. */
G4_BODY G4_AVX2 int32_t g4_pairs_along16_avx2(const int16_t *x, int n)
{
    __m256i twice = _mm256_setzero_si256(); /* each product stands in two lanes */
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256i v = _mm256_loadu_si256((const void *)(x + i));
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
    const __m256i p0 = _mm256_load_si256((const void *)y_pairs), p1 = _mm256_load_si256((const void *)(y_pairs + 8));
#pragma GCC unroll 4
    for (int i = 0; i < n; i++) {
        const __m256i less = _mm256_sub_epi32(zero, _mm256_set1_epi32(x_pairs[i]));
        a0[i] = _mm256_sub_epi32(less, p0);
        a1[i] = _mm256_sub_epi32(less, p1);
    }
    for (int c = 0; c < steps; c++, x += 4, y += 2 * y_stride) {
        const __m256i even0 = _mm256_loadu_si256((const void *)y), even1 = _mm256_loadu_si256((const void *)(y + 16));
        const __m256i odd0 = _mm256_loadu_si256((const void *)(y + y_stride)),
                      odd1 = _mm256_loadu_si256((const void *)(y + y_stride + 16));
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            const __m256i even = g4_two_avx2(x + i * x_stride), odd = g4_two_avx2(x + i * x_stride + 2);
            g4_cross_avx2(&a0[i], even, odd, even0, odd0);
            g4_cross_avx2(&a1[i], even, odd, even1, odd1);
        }
    }
}
/* Scores of n queries from i0 on with positions c.. */
G4_BODY G4_AVX2 void g4_scores16_tile_avx2(g4_attend16_pairs *a, const g4_tile16 *tile, int c, int head_dim,
                                           const int16_t *q, const float *q_unit, int i0, const int n)
{
    __m256i a0[4], a1[4];
    g4_products16_avx2(a0, a1, q + i0 * head_dim, head_dim, a->query_pairs + i0, tile->k + 2 * c, 2 * G4_PAGE,
                       a->key_pairs + c, head_dim / 4, n);
    const __m256 u0 = _mm256_loadu_ps(tile->k_unit + c), u1 = _mm256_loadu_ps(tile->k_unit + c + 8);
    float *s = a->work.s + i0 * G4_PAGE + c;
#pragma GCC unroll 4
    for (int i = 0; i < n; i++, s += G4_PAGE) {
        const __m256 u = _mm256_broadcast_ss(q_unit + i0 + i);
        _mm256_store_ps(s, _mm256_mul_ps(_mm256_cvtepi32_ps(a0[i]), _mm256_mul_ps(u, u0)));
        _mm256_store_ps(s + 8, _mm256_mul_ps(_mm256_cvtepi32_ps(a1[i]), _mm256_mul_ps(u, u1)));
    }
}
/* o (queries, width), dims d.. of n queries from i0 on, = o * shrink + unit * sum of w times values */
G4_BODY G4_AVX2 void g4_values16_tile_avx2(g4_attend16_pairs *a, const g4_tile16 *tile, int d, int width, int n_keys,
                                           float *o, int i0, const int n)
{
    __m256i a0[4], a1[4];
    g4_products16_avx2(a0, a1, a->work.w + i0 * G4_PAGE, G4_PAGE, a->weight_pairs + i0, tile->v + 2 * d, 2 * width,
                       a->value_pairs + d, (n_keys + 3) / 4, n);
    o += i0 * width + d;
#pragma GCC unroll 4
    for (int i = 0; i < n; i++, o += width) {
        const __m256 by = _mm256_broadcast_ss(a->work.shrink + i0 + i),
                     u = _mm256_set1_ps(a->work.unit[i0 + i] * tile->v_unit);
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
        const float m0 = m[i], max = g4_row_max_avx2(row);
        m[i] = max > m0 ? max : m0;
        a->shrink[i] = m0 - m[i];
        a->unit[i] = max - m[i];
    }
    for (int i = n; i % 8; i++) a->shrink[i] = a->unit[i] = sum[i] = 0;
    for (int i = 0; i < n; i++) sum[i] = g4_row_exp_avx2(a->s + i * G4_PAGE, m[i]);
    for (int i = 0; i < n; i += 8) {
        const __m256 peak =
            _mm256_div_ps(g4_exp_avx2(_mm256_loadu_ps(a->unit + i)), _mm256_set1_ps((float)G4_MAX_FACTOR16));
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
            _mm256_store_si256((void *)(w + j), _mm256_permute4x64_epi64(_mm256_packs_epi32(w0, w1), 0xd8));
        }
        l[i] = l[i] * a->shrink[i] + a->unit[i] * g4_hsum_avx2(_mm256_cvtepi32_ps(total));
    }
}
#define G4_CASE_SCORES16(SUFFIX, N)                                                                                    \
    case N:                                                                                                            \
        g4_scores16_tile_##SUFFIX(a, tile, c, head_dim, q, q_unit, i0, N);                                             \
        break;
#define G4_CASE_VALUES16(SUFFIX, N)                                                                                    \
    case N: g4_values16_tile_##SUFFIX(a, tile, d, width, n_keys, o, i0, N); break;
/* Of n <= 4 queries. */
G4_AVX2 static void g4_scores16_avx2(g4_attend16_pairs *a, const g4_tile16 *tile, int c, int head_dim, const int16_t *q,
                                     const float *q_unit, int i0, int n)
{
    switch (n) {
        G4_CASES_4(G4_CASE_SCORES16, avx2)
    }
}
G4_AVX2 static void g4_values16_avx2(g4_attend16_pairs *a, const g4_tile16 *tile, int d, int width, int n_keys,
                                     float *o, int i0, int n)
{
    switch (n) {
        G4_CASES_4(G4_CASE_VALUES16, avx2)
    }
}
G4_AVX2 static void g4_attend16_avx2(const g4_tile16 *tile, int n_keys, int head_dim, const int16_t *q,
                                     const float *q_unit, int n_q, float *m, float *l, float *o)
{
    g4_attend16_pairs a;
    const int width = (int)g4_round_up((size_t)head_dim, 16);
    g4_pairs_down16_avx2(a.key_pairs, tile->k, 2 * G4_PAGE, G4_PAGE, head_dim / 4);
    g4_pairs_down16_avx2(a.value_pairs, tile->v, 2 * width, width, (n_keys + 3) / 4);
    for (int n; n_q > 0; n_q -= n, m += n, l += n, q_unit += n, q += n * head_dim, o += n * width) {
        n = g4_min_int(n_q, G4_QUERY_BLOCK);
        for (int i = 0; i < n; i++) a.query_pairs[i] = g4_pairs_along16_avx2(q + i * head_dim, head_dim);
        for (int c = 0; c < n_keys; c += 16)
            for (int i = 0; i < n; i += 4) g4_scores16_avx2(&a, tile, c, head_dim, q, q_unit, i, g4_min_int(n - i, 4));
        g4_softmax16_avx2(&a.work, n, n_keys, m, l);
        for (int i = 0; i < n; i++) a.weight_pairs[i] = g4_pairs_along16_avx2(a.work.w + i * G4_PAGE, G4_PAGE);
        for (int d = 0; d < width; d += 16)
            for (int i = 0; i < n; i += 4) g4_values16_avx2(&a, tile, d, width, n_keys, o, i, g4_min_int(n - i, 4));
    }
}

/* ---- Norms and activations ------------------------------------------------------------------------------------- */

/* y = x / sqrt(mean(x^2) + eps) * w; the squares are summed in 32 lanes of 4 registers. Bound: loads and stores of the
 * second pass. */
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
 * + tanh(u). Error below 2^-20 |x|. Bound: 12 multiplications and a division for 8 values, on two pipes. */
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

/* cap * tanh(x / cap) = cap - 2 cap / (1 + e^(2x / cap)); error below 2^-21 cap. Bound: 9 multiplications and a
 * division for 8 values, on two pipes. */
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
              [G4_TYPE_Q8_ROW] = g4_gemm_q8_avx2,
              G4_NIBBLES_OF(avx2) },
    .product16 = { [G4_TYPE_Q8_0] = g4_product16_avx2, [G4_TYPE_Q8_ROW] = g4_product16_avx2 },
    .quantize = g4_quantize_avx2,
    .quantize16 = g4_quantize16_avx2,
    .attend = g4_attend_avx2,
    .round16 = g4_round16_avx2,
    .attend16 = g4_attend16_avx2,
    .rmsnorm = g4_rmsnorm_avx2,
    .geglu = g4_geglu_avx2,
    .softcap = g4_softcap_avx2,
};

#endif /* GEMMA4_KERNELS_AVX2_H */
