/* kernels.c - the scalar kernels, which define what every kernel computes, and the choice of a table of them.
 *
 * Each says its equation, its shapes and its order of sums. The vector kernels (kernels_*.h) stand in the same order
 * and are proved against these. The scalar kernels are written for the compiler's vectoriser: inner loops run over 16
 * rows, 64 positions or one head, with no branch and no reduction. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "parts.h"

#include <float.h>
#include <string.h>

/* Only this file includes the vector kernels. With G4_SCALAR_ONLY, or a compiler without GNU extensions, there are
 * none. */
#if !defined(G4_SCALAR_ONLY) && defined(__GNUC__) && defined(__x86_64__)
#define G4_SIMD_X86 1
#elif !defined(G4_SCALAR_ONLY) && defined(__GNUC__) && defined(__aarch64__) && defined(__AARCH64EL__)
#define G4_SIMD_ARM 1
#endif

#if defined(G4_SIMD_X86) || defined(G4_SIMD_ARM)
#include "kernels_walks.h"
#endif
#if defined(G4_SIMD_X86)
#include "kernels_x86.h"
#include "kernels_avx2.h"
#include "kernels_avxvnni.h"
#include "kernels_avx512.h"
#endif
#if defined(G4_SIMD_ARM)
#include "kernels_neon.h"
#endif

/* ---- Half floats ----------------------------------------------------------------------------------------------- */

/* Exponent and mantissa moved into place and multiplied by 2^112, the difference of the biases: exact for every
 * finite value, subnormals included, and without a branch. (Infinities would become 65536 and more: neither scales
 * nor the cache hold any.) */
float g4_f16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } x = { (uint32_t)(h & 0x7FFF) << 13 };
    x.f *= 0x1p112f;
    x.u |= (uint32_t)(h & 0x8000) << 16;
    return x.f;
}

uint16_t g4_f32_to_f16(float f)
{
    union {
        float f;
        uint32_t u;
    } x = { f };
    const uint16_t sign = (uint16_t)(x.u >> 16 & 0x8000);
    x.u &= 0x7FFFFFFF;
    if (x.u > 0x7F800000u) return (uint16_t)(sign | 0x7E00); /* NaN */
    if (x.f >= 65504.0f) return (uint16_t)(sign | 0x7BFF);   /* saturate: the cache must hold finite values */
    if (x.f < 0x1p-14f) {                                    /* subnormal: let the float adder round at 2^-24 */
        x.f += 0.5f;
        return (uint16_t)(sign | (uint16_t)(x.u - 0x3F000000u));
    }
    const uint32_t rounded = x.u + 0xFFF + (x.u >> 13 & 1);
    return (uint16_t)(sign | (uint16_t)((rounded - 0x38000000u) >> 13));
}

/* ---- Products ----------------------------------------------------------------------------------------------------
 *
 * See g4_gemm_fn. */

/* With float32 inputs: y[r] = sum_c w[c][r] x[c] for group g of 16 rows. */
typedef void (*g4_group_fn)(float *y, const g4_matrix *w, int g, const float *x);

static void g4_gemm_groups(float *y, size_t stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0,
                           int g1, g4_group_fn group)
{
    for (int g = g0; g < g1; g++)
        for (int t = t0; t < t1; t++)
            group(y + (size_t)(t - t0) * stride + 16 * (size_t)(g - g0), w, g, x->x + (size_t)t * x->x_stride);
}

/* Float32 weights [cols][16]. */
static void g4_group_f32(float *y, const g4_matrix *w, int g, const float *x)
{
    const float *p = (const float *)(const void *)(w->data + (size_t)g * w->group_bytes);
    float acc[16] = { 0 };
    for (int c = 0; c < w->cols; c++)
        for (int r = 0; r < 16; r++) acc[r] += p[16 * c + r] * x[c];
    memcpy(y, acc, sizeof acc);
}

static void g4_gemm_f32(float *y, size_t stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0, int g1)
{
    g4_gemm_groups(y, stride, w, x, t0, t1, g0, g1, g4_group_f32);
}

/* The same with bf16 weights [cols / 2][16][2], widened to float32. */
static void g4_group_bf16(float *y, const g4_matrix *w, int g, const float *x)
{
    /* two columns of one row: the even one in the low half */
    const uint32_t *p = (const uint32_t *)(const void *)(w->data + (size_t)g * w->group_bytes);
    float acc[16] = { 0 };
    for (int c = 0; c < 32 * w->steps; c++)
        for (int r = 0; r < 16; r++) {
            union {
                uint32_t u;
                float f;
            } even = { p[16 * c + r] << 16 }, odd = { p[16 * c + r] & 0xFFFF0000u };
            acc[r] += even.f * x[2 * c];
            acc[r] += odd.f * x[2 * c + 1];
        }
    memcpy(y, acc, sizeof acc);
}

static void g4_gemm_bf16(float *y, size_t stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0, int g1)
{
    g4_gemm_groups(y, stride, w, x, t0, t1, g0, g1, g4_group_bf16);
}

/* With int8 inputs: y gathers block after block of 32 columns, so that what is prepared of a block's inputs serves all
 * groups. */
typedef struct {
    int index;              /* of the block in its row */
    float d;                /* x = d * q */
    int sum[2];             /* of q, of each half */
    int16_t pattern[8][64]; /* the four inputs of each chunk, repeated for the 16 rows: what its weights meet */
} g4_block;
/* Adds the products of a block to y (16 (g1 - g0)). */
typedef void (*g4_block_fn)(float *y, const g4_matrix *w, int g0, int g1, const g4_block *x);

static void g4_block_read(g4_block *block, const g4_acts *x, int t, int index)
{
    const size_t i = (size_t)t * 2 * (size_t)x->steps + (size_t)index;
    const int8_t *q = x->q + 32 * i;
    block->index = index;
    block->d = x->d[i];
    block->sum[0] = x->sum[2 * i], block->sum[1] = x->sum[2 * i + 1];
    for (int c = 0; c < 8; c++)
        for (int k = 0; k < 64; k++) block->pattern[c][k] = q[4 * c + k % 4];
}

static void g4_gemm_blocks(float *y, size_t stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0,
                           int g1, int step_blocks, g4_block_fn add)
{
    for (int t = t0; t < t1; t++, y += stride) {
        memset(y, 0, 16 * (size_t)(g1 - g0) * sizeof *y);
        for (int b = 0; b < step_blocks * w->steps; b++) {
            g4_block block;
            g4_block_read(&block, x, t, b);
            add(y, w, g0, g1, &block);
        }
    }
}

/* The scales of a block of 32 inputs for 16 rows. */
static void g4_block_scales(float scale[16], const uint8_t *scales, g4_scale_type type)
{
    uint16_t bits[16];
    if (type == G4_SCALE_NONE) {
        memcpy(scale, scales, 16 * sizeof *scale);
        return;
    }
    memcpy(bits, scales, sizeof bits);
    if (type == G4_SCALE_BF16)
        for (int r = 0; r < 16; r++) scale[r] = g4_bf16_to_f32(bits[r]);
    else
        for (int r = 0; r < 16; r++) scale[r] = g4_f16_to_f32(bits[r]);
}

/* acc[r] += (scale_w[r] * scale_x) * (sum over one block of 32 inputs - offset); sums[4 r + j] are its four partial
 * sums, offset is what the sum has too much where weights are stored without a sign. */
static void g4_block_add(float *acc, const float scale[16], float d, const int32_t sums[64], int32_t offset)
{
    for (int r = 0; r < 16; r++) {
        const int32_t sum = sums[4 * r] + sums[4 * r + 1] + sums[4 * r + 2] + sums[4 * r + 3] - offset;
        acc[r] += scale[r] * d * (float)sum;
    }
}

/* Types of bytes: [8 chunks][16 rows][4] int8. Two chunks are summed in 16 bits (at most 2 * 128 * 127 = 32512), then
 * widened. */
static void g4_block_of_bytes(float *y, const g4_matrix *w, int g0, int g1, const g4_block *x)
{
    for (int g = g0; g < g1; g++, y += 16) {
        const uint8_t *group = w->data + (size_t)g * w->group_bytes;
        const int8_t *q = (const int8_t *)g4_bytes_weights(group, (size_t)x->index, w->scale_type);
        int32_t sums[64] = { 0 };
        for (int c = 0; c < 8; c += 2) {
            const int16_t *x0 = x->pattern[c], *x1 = x->pattern[c + 1];
            for (int i = 0; i < 64; i++) sums[i] += (int16_t)(q[64 * c + i] * x0[i] + q[64 * c + 64 + i] * x1[i]);
        }
        float scale[16];
        g4_block_scales(scale, g4_bytes_scales(group, (size_t)x->index, w->scale_type), w->scale_type);
        g4_block_add(y, scale, x->d, sums, 0);
    }
}

static void g4_gemm_bytes(float *y, size_t stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0, int g1)
{
    g4_gemm_blocks(y, stride, w, x, t0, t1, g0, g1, g4_bytes_blocks(w->scale_type), g4_block_of_bytes);
}

/* Types of nibbles. What their scales say of 16 rows in one block: weights are scale * (q - middle) + shift. */
typedef struct {
    float scale[16], shift[16];
    int8_t half[2][16]; /* integer scales of the block's halves, where a type has them */
} g4_block_shape;

static void g4_nibbles_scales(g4_block_shape *s, const uint8_t *step, int block, const g4_nibbles *shape,
                              g4_scale_type type)
{
    const int of_block = shape->kind <= G4_SCALES_MIN ? block * G4_BLOCK_SCALES : 0;
    const uint8_t *bytes = step + G4_STEP_SCALES + block * 32;
    g4_block_scales(s->scale, step + of_block, type);
    if (shape->kind == G4_SCALES_MIN) {
        g4_block_scales(s->shift, step + G4_STEP_SCALES + of_block, type);
        for (int r = 0; r < 16; r++) s->shift[r] += (float)shape->middle * s->scale[r];
    } else if (shape->kind == G4_SCALES_K_MIN) {
        g4_block_scales(s->shift, step + G4_BLOCK_SCALES, type); /* dmin */
        for (int r = 0; r < 16; r++) {
            s->scale[r] *= (float)bytes[r];
            s->shift[r] = (float)shape->middle * s->scale[r] - s->shift[r] * (float)bytes[16 + r];
        }
    } else if (shape->kind == G4_SCALES_K_HALVES) {
        memcpy(s->half, bytes, sizeof s->half);
    }
}

/* Adds the products of a run, chunks 2 run and 2 run + 1 of a block: sums[4 r + j] are four partial sums of row r. */
static void g4_nibbles_run(int16_t sums[64], const uint8_t *step, int block, int run, const g4_nibbles *shape,
                           const g4_block *x)
{
    const uint8_t *q = step + shape->weights + block * G4_NIBBLE_BLOCK + run * 64;
    const uint8_t *high = step + shape->high + block * G4_PLANE * shape->high_bits;
    const int16_t *x0 = x->pattern[2 * run], *x1 = x->pattern[2 * run + 1];
    if (shape->high_bits == 0) {
        for (int i = 0; i < 64; i++) sums[i] = (int16_t)(sums[i] + (q[i] & 15) * x0[i] + (q[i] >> 4) * x1[i]);
        return;
    }
    if (shape->low_bits == 0) {
        const int even = 4 * (run % 2), odd = even + 2;
        high += run / 2 * G4_PLANE;
        for (int i = 0; i < 64; i++)
            sums[i] = (int16_t)(sums[i] + (high[i] >> even & 3) * x0[i] + (high[i] >> odd & 3) * x1[i]);
        return;
    }
    const int16_t mask = shape->high_bits == 1 ? 16 : 48;
    const int first = shape->high_bits == 1 ? 2 * run : 4 * (run % 2), second = first + shape->high_bits;
    if (shape->high_bits == 2) high += run / 2 * G4_PLANE;
    for (int i = 0; i < 64; i++) {
        const int16_t bits = (int16_t)(high[i] << 4);
        const int16_t even = (int16_t)((q[i] & 15) | (bits >> first & mask)),
                      odd = (int16_t)(q[i] >> 4 | (bits >> second & mask));
        sums[i] = (int16_t)(sums[i] + even * x0[i] + odd * x1[i]);
    }
}

/* acc += scale * d * sum_c (q_c - middle) x_c + shift * (d * sum_c x_c). Numbers without a sign, so that products of a
 * block, or of half a block with 6 bits, fit in 16 bits (8 * 31 * 127, 4 * 63 * 127 in each of four partial sums);
 * middle * sum_c x_c is taken off once. */
static void g4_block_nibbles(float *y, const g4_matrix *w, int g0, int g1, const g4_block *x)
{
    const g4_nibbles *shape = &g4_nibbles_of[w->type];
    const int block = x->index % shape->blocks, in_halves = shape->kind == G4_SCALES_K_HALVES,
              sum = x->sum[0] + x->sum[1];
    for (int g = g0; g < g1; g++, y += 16) {
        const uint8_t *step =
            w->data + (size_t)g * w->group_bytes + (size_t)(x->index / shape->blocks) * (size_t)shape->bytes;
        g4_block_shape s;
        int16_t halves[2][64];
        int32_t sums[64];
        g4_nibbles_scales(&s, step, block, shape, w->scale_type);
        for (int i = 0; i < 64; i++) halves[0][i] = 0;
        for (int i = 0; i < 64 && in_halves; i++) halves[1][i] = 0;
        for (int run = 0; run < 4; run++) g4_nibbles_run(halves[in_halves ? run / 2 : 0], step, block, run, shape, x);
        if (in_halves)
            for (int i = 0; i < 64; i++)
                sums[i] = s.half[0][i / 4] * (halves[0][i] - shape->middle / 4 * x->sum[0]) +
                          s.half[1][i / 4] * (halves[1][i] - shape->middle / 4 * x->sum[1]);
        else
            for (int i = 0; i < 64; i++) sums[i] = halves[0][i];
        g4_block_add(y, s.scale, x->d, sums, in_halves ? 0 : shape->middle * sum);
        if (g4_has_mins(shape))
            for (int r = 0; r < 16; r++) y[r] += s.shift[r] * (x->d * (float)sum);
    }
}

static void g4_gemm_nibbles(float *y, size_t stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0,
                            int g1)
{
    g4_gemm_blocks(y, stride, w, x, t0, t1, g0, g1, g4_nibbles_of[w->type].blocks, g4_block_nibbles);
}

/* ---- Products with inputs of 16 bits -------------------------------------------------------------------------- */

/* A block's weights q [8 chunks][16 rows][4] in units of their row, in the order of the
 * inputs: the even ones, then the odd ones. */
static void g4_block_q16(int16_t v[16][32], const int8_t *q, const float scale[16], const float unit[16])
{
    for (int r = 0; r < 16; r++) {
        const int m = g4_to_int16(scale[r] * (128.0f / unit[r]));
        for (int c = 0; c < 32; c++)
            v[r][c / 2 + c % 2 * 16] = (int16_t)((q[c / 4 * 64 + 4 * r + c % 4] * m + 64) >> 7);
    }
}

/* See g4_product16_fn. Sums are taken without signs: what is out of bounds because it was no number wraps. */
static void g4_product16(float *y, size_t stride, const g4_matrix *w, const int16_t *x, const float *x_unit, int n,
                         float min, float max)
{
    const size_t blocks = (size_t)g4_bytes_blocks(w->scale_type) * (size_t)w->steps, cols = 32 * blocks;
    for (int g = 0; g < w->groups; g++, y += 16) {
        const uint8_t *group = w->data + (size_t)g * w->group_bytes;
        float scale[16], squares[16] = { 0 }, unit[16];
        for (size_t b = 0; b < blocks; b++) {
            g4_block_scales(scale, g4_bytes_scales(group, b, w->scale_type), w->scale_type);
            for (int r = 0; r < 16; r++) squares[r] += scale[r] * scale[r];
        }
        for (int r = 0; r < 16; r++) unit[r] = fmaxf(sqrtf(squares[r]) * G4_ROOT_PRODUCT16, FLT_MIN);
        for (int t0 = 0; t0 < n; t0 += G4_PAGE) {
            const int t1 = g4_min_int(t0 + G4_PAGE, n);
            uint32_t sums[G4_PAGE][16] = { 0 };
            for (size_t b = 0; b < blocks; b++) {
                int16_t v[16][32];
                g4_block_scales(scale, g4_bytes_scales(group, b, w->scale_type), w->scale_type);
                g4_block_q16(v, (const int8_t *)g4_bytes_weights(group, b, w->scale_type), scale, unit);
                for (int t = t0; t < t1; t++) {
                    const int16_t *p = x + (size_t)t * cols + 32 * b;
                    for (int r = 0; r < 16; r++) {
                        uint32_t sum = 0;
                        for (int i = 0; i < 32; i++) sum += (uint32_t)(v[r][i] * p[i]);
                        sums[t - t0][r] += sum;
                    }
                }
            }
            for (int t = t0; t < t1; t++)
                for (int r = 0; r < 16; r++) {
                    const float sum = (float)(int32_t)sums[t - t0][r] * (unit[r] * x_unit[t]);
                    y[(size_t)t * stride + (size_t)r] = g4_clamp(sum, min, max);
                }
        }
    }
}

/* ---- Rounding of inputs ---------------------------------------------------------------------------------------- */

/* d = max|x| / 127 over each 32 inputs, q = round half to even (x * (127 / max)): x is near d * q. A block of zeros,
 * or of values below G4_QUANT_MIN, has d = 0; one with an infinity keeps it in d; what is no number gives any q. */
static void g4_quantize(int8_t *q, float *d, int16_t *sum, const float *x, int cols)
{
    for (int b = 0; b < cols / 32; b++) {
        float max = 0;
        for (int i = 0; i < 32; i++) max = fmaxf(max, fabsf(x[32 * b + i]));
        const int usable = max >= G4_QUANT_MIN && max <= FLT_MAX;
        const float scale = max < G4_QUANT_MIN ? 0.0f : max / 127.0f, inverse = usable ? 127.0f / max : 0.0f;
        int total[2] = { 0 };
        for (int i = 0; i < 32; i++) {
            q[32 * b + i] = usable ? g4_to_int8(x[32 * b + i] * inverse) : 0;
            total[i / 16] += q[32 * b + i];
        }
        d[b] = scale;
        sum[2 * b] = (int16_t)total[0], sum[2 * b + 1] = (int16_t)total[1];
    }
}

/* Squares in sixteen partial sums, added in pairs. */
static void g4_quantize16(int16_t *q, float *unit, const float *x, int cols)
{
    float part[16] = { 0 }, max = 0;
    for (int i = 0; i < cols; i += 16)
        for (int j = 0; j < 16; j++) {
            part[j] += x[i + j] * x[i + j];
            max = fmaxf(max, fabsf(x[i + j]));
        }
    for (int j = 0; j < 8; j++) part[j] += part[j + 8];
    const float squares = ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
    *unit = fmaxf(fmaxf(sqrtf(squares) / G4_NORM_PRODUCT16, max / (float)G4_MAX_FACTOR16), FLT_MIN);
    const float inverse = 1.0f / *unit;
    for (int i = 0; i < cols; i++) q[i / 32 * 32 + i % 32 / 2 + i % 2 * 16] = g4_to_int16(x[i] * inverse);
}

/* ---- Attention ------------------------------------------------------------------------------------------------- */

/* Row `row` of n cached values as float32, without their scale. */
static void g4_kv_row(float *out, const void *data, g4_kv_type type, size_t row, int n)
{
    if (type == G4_KV_F32) {
        memcpy(out, (const float *)data + row * (size_t)n, (size_t)n * sizeof *out);
    } else if (type == G4_KV_F16) {
        for (int i = 0; i < n; i++) out[i] = g4_f16_to_f32(((const uint16_t *)data)[row * (size_t)n + (size_t)i]);
    } else {
        for (int i = 0; i < n; i++) out[i] = (float)((const int8_t *)data)[row * (size_t)n + (size_t)i];
    }
}

/* See g4_attend_fn. Four queries share each widened row of keys and of values. */
#define G4_SCALAR_QUERIES 4

static void g4_attend_few(const g4_kv_tile *tile, g4_kv_type type, int head_dim, const float *q, int n_q, const int *lo,
                          const int *hi, float *m, float *l, float *o)
{
    float s[G4_SCALAR_QUERIES][G4_PAGE], row[G4_MAX_HEAD_DIM];
    memset(s, 0, sizeof s);
    int first = G4_PAGE, last = 0; /* positions any of these queries sees */
    for (int i = 0; i < n_q; i++) {
        if (lo[i] >= hi[i]) continue;
        first = g4_min_int(first, lo[i]);
        last = g4_max_int(last, hi[i]);
    }
    if (first >= last) return;
    for (int d = 0; d < head_dim; d++) {
        g4_kv_row(row, tile->k, type, (size_t)d, G4_PAGE);
        for (int i = 0; i < n_q; i++) {
            const float qd = q[(size_t)i * (size_t)head_dim + (size_t)d];
            for (int j = 0; j < G4_PAGE; j++) s[i][j] += qd * row[j];
        }
    }
    for (int i = 0; i < n_q; i++) {
        if (lo[i] >= hi[i]) continue;
        if (tile->k_scale)
            for (int j = lo[i]; j < hi[i]; j++) s[i][j] *= tile->k_scale[j];
        float max = m[i];
        for (int j = lo[i]; j < hi[i]; j++) max = fmaxf(max, s[i][j]);
        const float shrink = expf(m[i] - max); /* exp(-inf) = 0 the first time */
        float total = l[i] * shrink;
        for (int j = lo[i]; j < hi[i]; j++) {
            s[i][j] = expf(s[i][j] - max);
            total += s[i][j];
            if (tile->v_scale) s[i][j] *= tile->v_scale[j];
        }
        m[i] = max;
        l[i] = total;
        float *oi = o + (size_t)i * (size_t)head_dim;
        for (int d = 0; d < head_dim; d++) oi[d] *= shrink;
    }
    for (int j = first; j < last; j++) {
        g4_kv_row(row, tile->v, type, (size_t)j, head_dim);
        for (int i = 0; i < n_q; i++) {
            if (j < lo[i] || j >= hi[i]) continue;
            float *oi = o + (size_t)i * (size_t)head_dim;
            for (int d = 0; d < head_dim; d++) oi[d] += s[i][j] * row[d];
        }
    }
}

static void g4_attend(const g4_kv_tile *tile, g4_kv_type type, int head_dim, const float *q, int n_q, const int *lo,
                      const int *hi, float *m, float *l, float *o)
{
    for (int i = 0; i < n_q; i += G4_SCALAR_QUERIES) {
        const size_t first = (size_t)i * (size_t)head_dim;
        g4_attend_few(tile, type, head_dim, q + first, g4_min_int(G4_SCALAR_QUERIES, n_q - i), lo + i, hi + i, m + i,
                      l + i, o + first);
    }
}

static void g4_round16(int16_t *y, const float *x, float inverse, int n)
{
    for (int i = 0; i < n; i++) y[i] = g4_to_int16(x[i] * inverse);
}

/* See g4_attend16_fn. Sums are taken without signs: what is out of bounds because it was no number wraps. */
static void g4_attend16(const g4_tile16 *tile, int n_keys, int head_dim, const int16_t *q, const float *q_unit, int n_q,
                        float *m, float *l, float *o)
{
    const size_t width = g4_round_up((size_t)head_dim, 16);
    for (int i = 0; i < n_q; i++, q += head_dim, o += width) {
        float p[G4_PAGE], max = m[i], max_p = 0, sum = 0;
        int16_t w[G4_PAGE] = { 0 };
        uint32_t dots[G4_PAGE] = { 0 }, seen[G4_MAX_HEAD_DIM] = { 0 };
        for (int d = 0; d < head_dim; d += 2) {
            const int16_t *k = tile->k + d * G4_PAGE;
            for (int j = 0; j < G4_PAGE; j++)
                dots[j] += (uint32_t)(q[d] * k[2 * j]) + (uint32_t)(q[d + 1] * k[2 * j + 1]);
        }
        for (int j = 0; j < n_keys; j++) {
            p[j] = (float)(int32_t)dots[j] * (q_unit[i] * tile->k_unit[j]);
            max = fmaxf(max, p[j]);
        }
        for (int j = 0; j < n_keys; j++) {
            p[j] = expf(p[j] - max);
            max_p = fmaxf(max_p, p[j]);
            sum += p[j];
        }
        const float unit = fmaxf(fmaxf(max_p / (float)G4_MAX_FACTOR16, sum / (float)G4_WEIGHTS16), FLT_MIN),
                    shrink = expf(m[i] - max);
        g4_round16(w, p, 1.0f / unit, n_keys);
        int32_t total = 0;
        for (int j = 0; j < n_keys; j++) total += w[j];
        m[i] = max;
        l[i] = l[i] * shrink + unit * (float)total;
        for (size_t j = 0; j < (size_t)n_keys; j += 2) {
            const int16_t *v = tile->v + j * width;
            for (size_t d = 0; d < (size_t)head_dim; d++)
                seen[d] += (uint32_t)(w[j] * v[2 * d]) + (uint32_t)(w[j + 1] * v[2 * d + 1]);
        }
        for (size_t d = 0; d < (size_t)head_dim; d++)
            o[d] = o[d] * shrink + unit * tile->v_unit * (float)(int32_t)seen[d];
    }
}

/* ---- Norms and activations ------------------------------------------------------------------------------------- */

/* y[i] = x[i] * (mean(x^2) + eps)^-0.5 * w[i]      Gemma4RMSNorm; by w and not 1 + w. Sixteen partial sums, added in
 * order. */
static void g4_rmsnorm(float *y, const float *x, const float *w, int n, float eps)
{
    float part[16] = { 0 };
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) part[j] += x[i + j] * x[i + j];
    for (int j = 0; i + j < n; j++) part[j] += x[i + j] * x[i + j];
    float total = 0;
    for (int j = 0; j < 16; j++) total += part[j];
    const float r = 1.0f / sqrtf(total / (float)n + eps);
    if (w)
        for (i = 0; i < n; i++) y[i] = x[i] * r * w[i];
    else
        for (i = 0; i < n; i++) y[i] = x[i] * r;
}

/* gelu(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), the tanh form everywhere in text and vision
 * (gelu_pytorch_tanh). */
static float g4_gelu(float x)
{
    const float c = 0.7978845608028654f; /* sqrt(2 / pi) */
    return 0.5f * x * (1.0f + tanhf(c * (x + 0.044715f * x * x * x)));
}

static void g4_geglu(float *y, const float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i++) y[i] = g4_gelu(gate[i]) * up[i];
}

static void g4_softcap(float *x, int n, float cap)
{
    for (int i = 0; i < n; i++) x[i] = cap * tanhf(x[i] / cap);
}

/* ---- Kernel tables and CPU choice ---------------------------------------------------------------------------------
 *
 * One table per instruction set, best first, scalar last; an engine points to one of them. */

static int g4_usable_scalar(void) { return 1; }

static const g4_kernels g4_kernels_scalar = {
    .isa = "scalar",
    .usable = g4_usable_scalar,
    .gemm = { [G4_TYPE_F32] = g4_gemm_f32,
              [G4_TYPE_BF16] = g4_gemm_bf16,
              [G4_TYPE_Q8_0] = g4_gemm_bytes,
              [G4_TYPE_Q4_0] = g4_gemm_nibbles,
              [G4_TYPE_Q4_1] = g4_gemm_nibbles,
              [G4_TYPE_Q5_0] = g4_gemm_nibbles,
              [G4_TYPE_Q5_1] = g4_gemm_nibbles,
              [G4_TYPE_Q4_K] = g4_gemm_nibbles,
              [G4_TYPE_Q5_K] = g4_gemm_nibbles,
              [G4_TYPE_Q6_K] = g4_gemm_nibbles,
              [G4_TYPE_Q2_ROW] = g4_gemm_nibbles,
              [G4_TYPE_Q4_ROW] = g4_gemm_nibbles,
              [G4_TYPE_Q8_ROW] = g4_gemm_bytes },
    .product16 = { [G4_TYPE_Q8_0] = g4_product16, [G4_TYPE_Q8_ROW] = g4_product16 },
    .quantize = g4_quantize,
    .quantize16 = g4_quantize16,
    .attend = g4_attend,
    .round16 = g4_round16,
    .attend16 = g4_attend16,
    .rmsnorm = g4_rmsnorm,
    .geglu = g4_geglu,
    .softcap = g4_softcap,
};

static const g4_kernels *const g4_tables[] = {
#if defined(G4_SIMD_X86)
    &g4_kernels_avx512vnni, &g4_kernels_avx512,
#if defined(G4_SIMD_AVXVNNI)
    &g4_kernels_avxvnni,
#endif
    &g4_kernels_avx2,
#endif
#if defined(G4_SIMD_ARM)
#if defined(G4_SIMD_DOTPROD)
    &g4_kernels_dotprod,
#endif
    &g4_kernels_neon,
#endif
    &g4_kernels_scalar,
};

const g4_kernels *const *g4_kernel_tables(int *n)
{
    *n = (int)(sizeof g4_tables / sizeof *g4_tables);
    return g4_tables;
}

const g4_kernels *g4_usable_table(int i)
{
    for (size_t t = 0; t < sizeof g4_tables / sizeof *g4_tables; t++)
        if (g4_tables[t]->usable() && i-- == 0) return g4_tables[t];
    return NULL;
}
