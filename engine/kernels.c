/* kernels.c - the scalar kernels, which define what every kernel computes, and the choice of a table of them. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "parts.h"

#include <float.h>
#include <string.h>
#if !defined(G4_SCALAR_ONLY)
#include "kernels_simd.h"
#endif

/* ---- Scalar kernels --------------------------------------------------------------------------
 *
 * The definition of every kernel: equation, shapes, order of sums. Vector kernels (engine/kernels_simd.h) are proved
 * against these. They are written for the compiler's vectoriser: inner loops run over 16 rows, 64 positions or one
 * head, with no branch and no reduction. */

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

/* y[r] = sum_c w[c][r] x[c], one group of 16 rows, float32 weights [cols][16]. */
static void g4_group_f32(float *y, const uint8_t *w, const float *x, int cols)
{
    const float *p = (const float *)(const void *)w;
    float acc[16] = { 0 };
    for (int c = 0; c < cols; c++)
        for (int r = 0; r < 16; r++) acc[r] += p[16 * c + r] * x[c];
    memcpy(y, acc, sizeof acc);
}

/* The same with bf16 weights [cols / 2][16][2], widened to float32. */
static void g4_group_bf16(float *y, const uint8_t *w, const float *x, int cols)
{
    const uint32_t *p = (const uint32_t *)(const void *)w; /* two columns of one row: the even one in the low half */
    float acc[16] = { 0 };
    for (int c = 0; c < cols / 2; c++)
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

/* The scales of a block of 32 inputs for 16 rows. */
static void g4_block_scales(float scale[16], const uint8_t *scales, g4_scale_type type)
{
    uint16_t bits[16];
    memcpy(bits, scales, sizeof bits);
    if (type == G4_SCALE_BF16)
        for (int r = 0; r < 16; r++) scale[r] = g4_bf16_to_f32(bits[r]);
    else
        for (int r = 0; r < 16; r++) scale[r] = g4_f16_to_f32(bits[r]);
}

/* acc[r] += (scale_w[r] * scale_x) * sum over one block of 32 inputs; sums[4 r + j] are its four partial sums. */
static void g4_block_add(float *acc, const uint8_t *scales, g4_scale_type type, float d, const int32_t sums[64],
                         int32_t offset)
{
    float scale[16];
    g4_block_scales(scale, scales, type);
    for (int r = 0; r < 16; r++) {
        const int32_t sum = sums[4 * r] + sums[4 * r + 1] + sums[4 * r + 2] + sums[4 * r + 3] - offset;
        acc[r] += scale[r] * d * (float)sum;
    }
}

/* The four inputs of each chunk of a block, repeated for the 16 rows: what the weights of a chunk are multiplied
 * with, element by element. */
static void g4_block_pattern(int16_t pattern[8][64], const int8_t *x)
{
    for (int c = 0; c < 8; c++)
        for (int i = 0; i < 64; i++) pattern[c][i] = x[4 * c + i % 4];
}

/* q8_0, one block of 16 rows: [8 chunks][16 rows][4] int8. Two chunks are summed in 16 bits (at most 2 * 128 * 127 =
 * 32512), then widened. */
static void g4_block_q8_0(int32_t sums[64], const int8_t *w, int16_t pattern[8][64])
{
    memset(sums, 0, 64 * sizeof *sums);
    for (int c = 0; c < 8; c += 2) {
        const int16_t *x0 = pattern[c], *x1 = pattern[c + 1];
        for (int i = 0; i < 64; i++) sums[i] += (int16_t)(w[64 * c + i] * x0[i] + w[64 * c + 64 + i] * x1[i]);
    }
}

/* q4_0: [4 runs][16 rows][4] bytes of two nibbles. Nibbles are unsigned, so eight products fit in 16 bits (15 * 127 *
 * 8 = 15240); the offset of 8 is taken off once per block: 8 * sum of its activations. */
static void g4_block_q4_0(int32_t sums[64], const uint8_t *w, int16_t pattern[8][64])
{
    int16_t sums16[64] = { 0 };
    for (int run = 0; run < 4; run++) {
        const int16_t *x0 = pattern[2 * run], *x1 = pattern[2 * run + 1];
        for (int i = 0; i < 64; i++)
            sums16[i] = (int16_t)(sums16[i] + (w[64 * run + i] & 15) * x0[i] + (w[64 * run + i] >> 4) * x1[i]);
    }
    for (int i = 0; i < 64; i++) sums[i] = sums16[i];
}

static void g4_gemm_f32(float *y, size_t stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0, int g1)
{
    for (int g = g0; g < g1; g++)
        for (int t = t0; t < t1; t++)
            g4_group_f32(y + (size_t)(t - t0) * stride + 16 * (size_t)(g - g0), w->data + (size_t)g * w->group_bytes,
                         x->x + (size_t)t * x->x_stride, w->cols);
}

static void g4_gemm_bf16(float *y, size_t stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0, int g1)
{
    for (int g = g0; g < g1; g++)
        for (int t = t0; t < t1; t++)
            g4_group_bf16(y + (size_t)(t - t0) * stride + 16 * (size_t)(g - g0), w->data + (size_t)g * w->group_bytes,
                          x->x + (size_t)t * x->x_stride, 64 * w->steps);
}

/* Both quantised types: y gathers block after block, so that a block's pattern serves all groups. A step of 64 inputs
 * is 32 scales, then the weights of its two blocks. */
static void g4_gemm_quantised(float *y, size_t stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0,
                              int g1)
{
    const size_t block_bytes = w->type == G4_TYPE_Q8_0 ? 512 : 256, step_bytes = 64 + 2 * block_bytes;
    for (int t = t0; t < t1; t++, y += stride) {
        memset(y, 0, 16 * (size_t)(g1 - g0) * sizeof *y);
        for (int block = 0; block < 2 * w->steps; block++) {
            const size_t at = (size_t)t * 2 * (size_t)x->steps + (size_t)block;
            int16_t pattern[8][64];
            int32_t sums[64];
            g4_block_pattern(pattern, x->q + 32 * at);
            for (int g = g0; g < g1; g++) {
                const uint8_t *step = w->data + (size_t)g * w->group_bytes + (size_t)(block / 2) * step_bytes;
                const uint8_t *values = step + 64 + (size_t)(block % 2) * block_bytes;
                if (w->type == G4_TYPE_Q8_0)
                    g4_block_q8_0(sums, (const int8_t *)values, pattern);
                else
                    g4_block_q4_0(sums, values, pattern);
                g4_block_add(y + 16 * (g - g0), step + block % 2 * 32, w->scale_type, x->d[at], sums,
                             w->type == G4_TYPE_Q8_0 ? 0 : 8 * x->sum[at]);
            }
        }
    }
}

/* The weights of a block in units of their row, in the order of the inputs: the even ones, then the odd ones. q is
 * [8 chunks][16 rows][4]. */
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
                         float least, float most)
{
    const size_t cols = 64 * (size_t)w->steps;
    for (int g = 0; g < w->groups; g++, y += 16) {
        const uint8_t *group = w->data + (size_t)g * w->group_bytes;
        float scale[16], squares[16] = { 0 }, unit[16];
        for (int b = 0; b < 2 * w->steps; b++) {
            g4_block_scales(scale, group + (size_t)(b / 2) * 1088 + (size_t)(b % 2) * 32, w->scale_type);
            for (int r = 0; r < 16; r++) squares[r] += scale[r] * scale[r];
        }
        for (int r = 0; r < 16; r++) unit[r] = fmaxf(sqrtf(squares[r]) * G4_ROOT_PRODUCT16, FLT_MIN);
        for (int t0 = 0; t0 < n; t0 += G4_PAGE) {
            const int t1 = g4_min_int(t0 + G4_PAGE, n);
            uint32_t sums[G4_PAGE][16] = { 0 };
            for (int b = 0; b < 2 * w->steps; b++) {
                const uint8_t *step = group + (size_t)(b / 2) * 1088;
                int16_t v[16][32];
                g4_block_scales(scale, step + b % 2 * 32, w->scale_type);
                g4_block_q16(v, (const int8_t *)step + 64 + b % 2 * 512, scale, unit);
                for (int t = t0; t < t1; t++) {
                    const int16_t *p = x + (size_t)t * cols + 32 * (size_t)b;
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
                    y[(size_t)t * stride + (size_t)r] = g4_clamp(sum, least, most);
                }
        }
    }
}

/* d = max|x| / 127 over each 32 inputs, q = round half to even (x * (127 / max)): x is near d * q. A block of zeros,
 * or of values below G4_QUANT_LEAST, has d = 0; one with an infinity keeps it in d. */
static void g4_quantize(int8_t *q, float *d, int32_t *sum, const float *x, int cols)
{
    for (int b = 0; b < cols / 32; b++) {
        float most = 0;
        for (int i = 0; i < 32; i++) most = fmaxf(most, fabsf(x[32 * b + i]));
        const int usable = most >= G4_QUANT_LEAST && most <= FLT_MAX;
        const float scale = most < G4_QUANT_LEAST ? 0.0f : most / 127.0f, inverse = usable ? 127.0f / most : 0.0f;
        int32_t total = 0;
        for (int i = 0; i < 32; i++) {
            const int32_t v = usable ? (int32_t)rintf(x[32 * b + i] * inverse) : 0;
            q[32 * b + i] = (int8_t)v;
            total += v;
        }
        d[b] = scale;
        sum[b] = total;
    }
}

static void g4_quantize16(int16_t *q, float *unit, const float *x, int cols)
{
    float part[16] = { 0 }, largest = 0;
    for (int i = 0; i < cols; i += 16)
        for (int j = 0; j < 16; j++) {
            part[j] += x[i + j] * x[i + j];
            largest = fmaxf(largest, fabsf(x[i + j]));
        }
    for (int j = 0; j < 8; j++) part[j] += part[j + 8];
    const float squares = ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
    *unit = fmaxf(fmaxf(sqrtf(squares) / G4_NORM_PRODUCT16, largest / (float)G4_MOST16), FLT_MIN);
    const float inverse = 1.0f / *unit;
    for (int i = 0; i < cols; i++) q[i / 32 * 32 + i % 32 / 2 + i % 2 * 16] = g4_to_int16(x[i] * inverse);
}

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

/* One row of 64 cached values as float32. */
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
#define G4_ATTEND_QUERIES 4

static void g4_attend_few(const g4_kv_tile *tile, g4_kv_type type, int head_dim, const float *q, int n_q, const int *lo,
                          const int *hi, float *m, float *l, float *o)
{
    float s[G4_ATTEND_QUERIES][G4_PAGE], row[G4_MAX_HEAD_DIM];
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
        float most = m[i];
        for (int j = lo[i]; j < hi[i]; j++) most = fmaxf(most, s[i][j]);
        const float shrink = expf(m[i] - most); /* exp(-inf) = 0 the first time */
        float total = l[i] * shrink;
        for (int j = lo[i]; j < hi[i]; j++) {
            s[i][j] = expf(s[i][j] - most);
            total += s[i][j];
            if (tile->v_scale) s[i][j] *= tile->v_scale[j];
        }
        m[i] = most;
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
    for (int i = 0; i < n_q; i += G4_ATTEND_QUERIES) {
        const size_t at = (size_t)i * (size_t)head_dim;
        g4_attend_few(tile, type, head_dim, q + at, g4_min_int(G4_ATTEND_QUERIES, n_q - i), lo + i, hi + i, m + i,
                      l + i, o + at);
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
        float p[G4_PAGE], most = m[i], top = 0, sum = 0;
        int16_t w[G4_PAGE] = { 0 };
        uint32_t dots[G4_PAGE] = { 0 }, seen[G4_MAX_HEAD_DIM] = { 0 };
        for (int d = 0; d < head_dim; d += 2) {
            const int16_t *k = tile->k + d * G4_PAGE;
            for (int j = 0; j < G4_PAGE; j++)
                dots[j] += (uint32_t)(q[d] * k[2 * j]) + (uint32_t)(q[d + 1] * k[2 * j + 1]);
        }
        for (int j = 0; j < n_keys; j++) {
            p[j] = (float)(int32_t)dots[j] * (q_unit[i] * tile->k_unit[j]);
            most = fmaxf(most, p[j]);
        }
        for (int j = 0; j < n_keys; j++) {
            p[j] = expf(p[j] - most);
            top = fmaxf(top, p[j]);
            sum += p[j];
        }
        const float unit = fmaxf(fmaxf(top / (float)G4_MOST16, sum / (float)G4_WEIGHTS16), FLT_MIN),
                    shrink = expf(m[i] - most);
        g4_round16(w, p, 1.0f / unit, n_keys);
        int32_t total = 0;
        for (int j = 0; j < n_keys; j++) total += w[j];
        m[i] = most;
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

/* ---- Kernel tables and CPU choice ------------------------------------------------------------
 *
 * One table per instruction set, best first, scalar last; an engine points to one of them. */

static int g4_always(void) { return 1; }

const g4_kernels g4_kernels_scalar = {
    "scalar",     g4_always,     { g4_gemm_f32, g4_gemm_bf16, g4_gemm_quantised, g4_gemm_quantised },
    g4_quantize,  g4_attend,     g4_attend16,
    g4_product16, g4_quantize16, g4_round16,
    g4_rmsnorm,   g4_geglu,      g4_softcap,
};

static const g4_kernels *const g4_tables[] = {
#if !defined(G4_SCALAR_ONLY) && defined(G4_SIMD_TABLES)
    G4_SIMD_TABLES
#endif
        & g4_kernels_scalar,
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
