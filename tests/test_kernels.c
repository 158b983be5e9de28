/* test_kernels.c - every kernel table this CPU can run, against the layouts' definition in float64 and against the
 * scalar table. With --time it also prints the rates of each table on one thread. */
#define GEMMA4_IMPLEMENTED /* the feature macro that clock_gettime needs */
#include "gemma4.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "chat/chat.h"
#include "test.h"

static uint64_t g4_seed = 1;
static uint32_t g4_rand(void)
{
    g4_seed ^= g4_seed << 13, g4_seed ^= g4_seed >> 7, g4_seed ^= g4_seed << 17;
    return (uint32_t)(g4_seed >> 32);
}
static float g4_randf(void) { return (float)g4_rand() / 2147483648.0f - 1.0f; }
static size_t g4_pad(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* Equal bits, not equal values. */
#define G4_EXPECT_BITS(a, b, n, ...) G4_EXPECT(!memcmp((a), (b), (n) * sizeof *(a)), __VA_ARGS__)

/* ---- Matrices ----------------------------------------------------------------------------------- */

/* The steps of groups16, written down once more: columns, bytes, where scales, minima, nibbles and planes begin. */
typedef struct {
    int cols, bytes, mins, nibbles, high, high_bits;
} g4_step;
static const g4_step g4_steps_of[G4_N_TYPES] = {
    [G4_TYPE_F32] = { 64, 4096, 0, 0, 0, 0 },         [G4_TYPE_BF16] = { 64, 2048, 0, 0, 0, 0 },
    [G4_TYPE_Q8_0] = { 64, 1088, 0, 0, 0, 0 },        [G4_TYPE_Q4_0] = { 64, 576, 0, 64, 0, 0 },
    [G4_TYPE_Q4_1] = { 64, 640, 64, 128, 0, 0 },      [G4_TYPE_Q5_0] = { 64, 704, 0, 64, 576, 1 },
    [G4_TYPE_Q5_1] = { 64, 768, 64, 128, 640, 1 },    [G4_TYPE_Q4_K] = { 256, 2368, 32, 320, 0, 0 },
    [G4_TYPE_Q5_K] = { 256, 2880, 32, 320, 2368, 1 }, [G4_TYPE_Q6_K] = { 256, 3392, 0, 320, 2368, 2 },
    [G4_TYPE_Q2_ROW] = { 256, 1088, 0, 64, 64, 2 },   [G4_TYPE_Q4_ROW] = { 256, 2112, 0, 64, 0, 0 },
    [G4_TYPE_Q8_ROW] = { 256, 4160, 0, 0, 0, 0 },
};
static int g4_is_row(g4_type type) { return type >= G4_TYPE_Q2_ROW; }
static int g4_is_bytes(g4_type type) { return type == G4_TYPE_Q8_0 || type == G4_TYPE_Q8_ROW; }
static int g4_is_k(g4_type type) { return type >= G4_TYPE_Q4_K && !g4_is_row(type); }
static int g4_is_quantised(g4_type type) { return type >= G4_TYPE_Q8_0; }

static double g4_half(const uint8_t *p, g4_scale_type type) { return (double)g4_scale_value(g4_load_u16(p), type); }

/* One element is scale * stored + min. */
static double g4_element(const g4_matrix *w, int r, int c, double *scale, double *min)
{
    const g4_step *step = &g4_steps_of[w->type];
    const size_t row = (size_t)(r % 16), col = (size_t)(c % step->cols), block = col / 32;
    const uint8_t *group = w->data + (size_t)(r / 16) * w->group_bytes;
    const uint8_t *p = group + (size_t)(c / step->cols) * (size_t)step->bytes;
    *scale = 1.0, *min = 0.0;
    if (w->type == G4_TYPE_F32) {
        float f;
        memcpy(&f, p + 4 * (16 * col + row), 4);
        return (double)f;
    }
    if (w->type == G4_TYPE_BF16) return (double)g4_bf16_to_f32(g4_load_u16(p + 2 * (col / 2 * 32 + row * 2 + col % 2)));
    const size_t chunk = col / 4, at = row * 4 + col % 4;
    const uint8_t *two = p + step->high + 64 * (col / 16) + at;
    if (g4_is_row(w->type)) {
        float d;
        memcpy(&d, p + 4 * row, sizeof d);
        *scale = (double)d;
        if (w->type == G4_TYPE_Q2_ROW) return (double)((*two >> 2 * (chunk % 4)) % 4 - 2);
    } else {
        *scale = g4_half(p + 2 * row + (g4_is_k(w->type) ? 0 : 32 * block), w->scale_type);
    }
    if (g4_is_bytes(w->type)) return (double)(int8_t)p[64 + chunk * 64 + at];
    const uint8_t byte = p[(size_t)step->nibbles + chunk / 2 * 64 + at], *high = p + step->high;
    int q = chunk % 2 ? byte >> 4 : byte & 15;
    if (step->high_bits == 1) q += (high[64 * block + at] >> chunk % 8) % 2 * 16;
    if (step->high_bits == 2) q += (*two >> 2 * (chunk % 4)) % 4 * 16;
    if (w->type == G4_TYPE_Q4_1 || w->type == G4_TYPE_Q5_1)
        *min = g4_half(p + step->mins + 32 * block + 2 * row, w->scale_type);
    if (w->type == G4_TYPE_Q4_K || w->type == G4_TYPE_Q5_K) {
        *scale *= (double)p[64 + 32 * block + row];
        *min = -g4_half(p + step->mins + 2 * row, w->scale_type) * (double)p[64 + 32 * block + 16 + row];
    }
    if (w->type == G4_TYPE_Q6_K) *scale *= (double)(int8_t)p[64 + 16 * (col / 16) + row];
    return (double)(q - (w->type == G4_TYPE_Q4_0 || w->type == G4_TYPE_Q4_ROW ? 8
                         : w->type == G4_TYPE_Q5_0                            ? 16
                         : w->type == G4_TYPE_Q6_K                            ? 32
                                                                              : 0));
}

/* MIN: the lowest stored numbers. UNIT: random ones, all scales and minima small integers. */
enum { G4_FILL_RANDOM, G4_FILL_ZERO, G4_FILL_MIN, G4_FILL_UNIT };

static void g4_fill_floats(uint8_t *data, size_t n, int is_bf16, int fill)
{
    for (size_t i = 0; i < n; i++) {
        const float f = fill != G4_FILL_ZERO ? g4_randf() : 0.0f;
        uint32_t u;
        memcpy(&u, &f, 4);
        const uint16_t h = (uint16_t)(u >> 16);
        memcpy(data + (is_bf16 ? 2 : 4) * i, is_bf16 ? (const void *)&h : &f, is_bf16 ? 2 : 4);
    }
}
static void g4_fill_halves(uint8_t *data, size_t n, g4_scale_type type, int fill, float unit)
{
    for (size_t i = 0; i < n; i++) {
        const float f = fill == G4_FILL_UNIT   ? unit
                        : fill == G4_FILL_ZERO ? 0.0f
                                               : (float)((int)(g4_rand() % 1024) - 512) / 4096.0f; /* exact in both */
        uint32_t u;
        memcpy(&u, &f, 4);
        const uint16_t h = type == G4_SCALE_F16 ? g4_f32_to_f16(f) : (uint16_t)(u >> 16);
        memcpy(data + 2 * i, &h, 2);
    }
}
static void g4_fill_bytes(uint8_t *data, size_t n, unsigned range, int lowest)
{
    for (size_t i = 0; i < n; i++) data[i] = (uint8_t)((int)(g4_rand() % range) + lowest);
}

static void g4_step_fill(uint8_t *p, g4_type type, g4_scale_type scale, int fill)
{
    const g4_step *step = &g4_steps_of[type];
    const size_t blocks = (size_t)step->cols / 32;
    if (type == G4_TYPE_F32 || type == G4_TYPE_BF16) {
        g4_fill_floats(p, (size_t)step->cols * 16, type == G4_TYPE_BF16, fill);
        return;
    }
    const int is_q8 = g4_is_bytes(type); /* whose zeros are weights; the scales of the others are */
    for (int r = 0; r < 16 && g4_is_row(type); r++) {
        const float d = fill == G4_FILL_UNIT ? 1.0f : fill == G4_FILL_ZERO && !is_q8 ? 0.0f : g4_randf() / 8.0f;
        memcpy(p + 4 * r, &d, sizeof d);
    }
    if (!g4_is_row(type))
        g4_fill_halves(p, g4_is_k(type) ? 16 : 32, scale, is_q8 && fill == G4_FILL_ZERO ? G4_FILL_RANDOM : fill, 1.0f);
    if (step->mins) g4_fill_halves(p + step->mins, g4_is_k(type) ? 16 : 32, scale, fill, -2.0f);
    if (type == G4_TYPE_Q4_K || type == G4_TYPE_Q5_K)
        g4_fill_bytes(p + 64, 32 * blocks, fill == G4_FILL_UNIT ? 4 : 64, 0);
    if (type == G4_TYPE_Q6_K && fill == G4_FILL_UNIT) g4_fill_bytes(p + 64, 32 * blocks, 5, -2);
    if (type == G4_TYPE_Q6_K && fill != G4_FILL_UNIT) g4_fill_bytes(p + 64, 32 * blocks, 256, -128);
    const size_t weights = is_q8 ? 64 : (size_t)step->nibbles, bytes = (size_t)step->bytes - weights;
    if (fill == G4_FILL_MIN || (fill == G4_FILL_ZERO && is_q8))
        memset(p + weights, is_q8 && fill == G4_FILL_MIN ? 0x80 : 0, bytes);
    else
        g4_fill_bytes(p + weights, bytes, 256, 0);
}

/* Padding is not zero: inputs are. */
static void g4_matrix_fill(g4_matrix *w, g4_type type, g4_scale_type scale, int rows, int cols, int fill)
{
    const g4_step *step = &g4_steps_of[type];
    *w = (g4_matrix) { .type = type, .scale_type = scale, .rows = rows, .cols = cols };
    w->groups = (rows + 15) / 16;
    w->steps = (cols + step->cols - 1) / step->cols;
    w->group_bytes = (size_t)w->steps * (size_t)step->bytes;
    uint8_t *data = g4_alloc(NULL, (size_t)w->groups, w->group_bytes);
    if (!data) exit(2);
    w->data = data;
    for (int i = 0; i < w->groups * w->steps; i++)
        g4_step_fill(data + (size_t)i * (size_t)step->bytes, type, scale, fill);
}

/* ---- The table of types ------------------------------------------------------------------------------ */

/* The table says what the layouts above are made of, and reads their rows. */
static void g4_test_type(g4_type type, g4_scale_type scale, int rows, int cols)
{
    const g4_type_info *info = g4_type_get(type);
    const g4_step *step = &g4_steps_of[type];
    const int steps = (cols + step->cols - 1) / step->cols;
    G4_EXPECT(info && (int)info->step_bytes == step->bytes && (int)info->step_cols == step->cols,
              "type %d: bytes or columns of a step", (int)type);
    G4_EXPECT(g4_group_bytes(type, (uint64_t)cols) == (uint64_t)(steps * step->bytes), "%s: bytes of a group",
              info->name);
    g4_matrix w;
    g4_matrix_fill(&w, type, scale, rows, cols, G4_FILL_RANDOM);
    const g4_tensor_entry entry = { .type = type, .scale_type = scale };
    const g4_matrix m = g4_matrix_at(w.data, &entry, (uint64_t)rows, (uint64_t)cols);
    G4_EXPECT(m.type == w.type && m.groups == w.groups && m.steps == w.steps && m.group_bytes == w.group_bytes,
              "%s %dx%d: another shape", info->name, rows, cols);
    float *x = g4_alloc(NULL, (size_t)cols, sizeof *x);
    if (!x) exit(2);
    int bad = 0;
    for (int r = 0; r < rows; r++) {
        g4_matrix_row(x, &m, r);
        for (int c = 0; c < cols; c++) {
            double of_block, min;
            const double v = g4_element(&w, r, c, &of_block, &min);
            bad += x[c] != (float)of_block * (float)v + (float)min;
        }
    }
    G4_EXPECT(bad == 0, "%s %dx%d: %d values of matrix rows differ", info->name, rows, cols, bad);
    g4_free(NULL, x);
    g4_free(NULL, (void *)(uintptr_t)w.data);
}

/* GGUF's blocks as float32, in the order in which its own programs take them apart. */
static void g4_block_32(float out[32], const uint8_t *b, g4_type type)
{
    const int has_min = type != G4_TYPE_Q5_0, has_high = type != G4_TYPE_Q4_1;
    const float d = (float)g4_half(b, G4_SCALE_F16), m = has_min ? (float)g4_half(b + 2, G4_SCALE_F16) : 0.0f;
    uint32_t high = 0;
    b += has_min ? 4 : 2;
    if (has_high) memcpy(&high, b, 4), b += 4;
    for (int i = 0; i < 16; i++) {
        const int low = (b[i] & 15) + (int)(high >> i & 1) * 16, up = (b[i] >> 4) + (int)(high >> (i + 16) & 1) * 16;
        out[i] = has_min ? d * (float)low + m : d * (float)(low - 16);
        out[i + 16] = has_min ? d * (float)up + m : d * (float)(up - 16);
    }
}
static void g4_block_k(float out[256], const uint8_t *b, g4_type type)
{
    const float d = (float)g4_half(b, G4_SCALE_F16), dmin = (float)g4_half(b + 2, G4_SCALE_F16);
    const uint8_t *s = b + 4, *high = b + 16, *q = type == G4_TYPE_Q5_K ? b + 48 : b + 16;
    for (int j = 0; j < 8; j++) {
        const int scale = j < 4 ? s[j] % 64 : s[j + 4] % 16 + s[j - 4] / 64 * 16;
        const int min = j < 4 ? s[j + 4] % 64 : s[j + 4] / 16 + s[j] / 64 * 16;
        for (int i = 0; i < 32; i++) {
            int v = j % 2 ? q[32 * (j / 2) + i] / 16 : q[32 * (j / 2) + i] % 16;
            if (type == G4_TYPE_Q5_K) v += (high[i] >> j) % 2 * 16;
            out[32 * j + i] = d * (float)scale * (float)v - dmin * (float)min;
        }
    }
}
static void g4_block_6(float out[256], const uint8_t *b)
{
    const float d = (float)g4_half(b + 208, G4_SCALE_F16);
    for (int n = 0; n < 2; n++) {
        const uint8_t *low = b + 64 * n, *high = b + 128 + 32 * n;
        const int8_t *s = (const int8_t *)b + 192 + 8 * n;
        for (int i = 0; i < 32; i++) {
            const int q[4] = { low[i] % 16 + high[i] % 4 * 16, low[i + 32] % 16 + high[i] / 4 % 4 * 16,
                               low[i] / 16 + high[i] / 16 % 4 * 16, low[i + 32] / 16 + high[i] / 64 * 16 };
            for (int k = 0; k < 4; k++) out[128 * n + 32 * k + i] = d * (float)s[2 * k + i / 16] * (float)(q[k] - 32);
        }
    }
}

/* Value c of a row of a table, read as parts.h describes the layout. */
static float g4_table_value(const uint8_t *row, g4_type type, g4_scale_type scale, size_t cols, size_t c)
{
    static const size_t bytes[G4_N_TYPES] = { [G4_TYPE_Q4_1] = 20,  [G4_TYPE_Q5_0] = 22,  [G4_TYPE_Q5_1] = 24,
                                              [G4_TYPE_Q4_K] = 144, [G4_TYPE_Q5_K] = 176, [G4_TYPE_Q6_K] = 210 };
    if (g4_is_row(type)) {
        const int bits = type == G4_TYPE_Q2_ROW ? 2 : type == G4_TYPE_Q4_ROW ? 4 : 8, values = 1 << bits;
        const uint8_t *b = row + c / 256 * (size_t)(4 + 32 * bits);
        float d;
        memcpy(&d, b, sizeof d);
        if (bits == 8) return d * (float)(int8_t)b[4 + c % 256];
        return d * (float)((b[4 + c % 256 * (size_t)bits / 8] >> c * (size_t)bits % 8) % values - values / 2);
    }
    float f, block[256];
    memcpy(&f, row + (type == G4_TYPE_F32 ? 4 * c : 0), sizeof f);
    if (type == G4_TYPE_F32) return f;
    if (type == G4_TYPE_BF16) return g4_bf16_to_f32(g4_load_u16(row + 2 * c));
    if (bytes[type]) {
        const size_t n = g4_is_k(type) ? 256 : 32;
        row += c / n * bytes[type];
        if (n == 32)
            g4_block_32(block, row, type);
        else if (type == G4_TYPE_Q6_K)
            g4_block_6(block, row);
        else
            g4_block_k(block, row, type);
        return block[c % n];
    }
    const uint8_t *values = row + cols / 32 * 2, byte = values[type == G4_TYPE_Q8_0 ? c : c / 32 * 16 + c % 16];
    const int q = type == G4_TYPE_Q8_0 ? (int8_t)byte : (c % 32 < 16 ? byte & 15 : byte >> 4) - 8;
    return g4_scale_value(g4_load_u16(row + c / 32 * 2), scale) * (float)q;
}

/* Any part of a row of a table, with any bytes that are numbers. */
static void g4_test_table(g4_type type, g4_scale_type scale)
{
    enum { ROWS = 3, COLS = 512 };
    const size_t row_bytes = (size_t)g4_row_bytes(type, COLS);
    uint8_t *data = g4_alloc(NULL, ROWS, row_bytes);
    if (!data) exit(2);
    for (size_t i = 0; i < ROWS * row_bytes; i++) data[i] = (uint8_t)(g4_rand() % 64); /* no infinite exponent */
    const g4_table t = { data, type, scale, ROWS, COLS, row_bytes };
    int bad = 0;
    for (int row = 0; row < ROWS; row++)
        for (int col = 0; col < COLS; col += 7) {
            float x[COLS];
            g4_table_row(x, &t, row, col, COLS - col);
            for (int i = 0; i < COLS - col; i++)
                bad += x[i] != g4_table_value(data + (size_t)row * row_bytes, type, scale, COLS, (size_t)(col + i));
        }
    G4_EXPECT(bad == 0, "%s: %d values of table rows differ", g4_type_name(type), bad);
    g4_free(NULL, data);
}

static void g4_test_types(void)
{
    G4_EXPECT(!g4_type_get(G4_N_TYPES) && !strcmp(g4_type_name(G4_N_TYPES), "?"), "a type too many");
    for (g4_type type = G4_TYPE_F32; type < G4_N_TYPES; type++) {
        for (g4_scale_type scale = G4_SCALE_NONE; scale <= G4_SCALE_BF16; scale++) {
            if (!(g4_type_get(type)->scale_types >> scale & 1)) continue;
            g4_test_type(type, scale, 33, 100);
            g4_test_type(type, scale, 16, 64);
            g4_test_table(type, scale);
        }
    }
}

/* ---- Activations ------------------------------------------------------------------------------------- */

/* Activations up to size; -1: the largest numbers with signs in turn; -2: all negative. */
static void g4_acts_make(g4_acts *t, const g4_kernels *k, int n, int cols, float size)
{
    const size_t stride = g4_pad((size_t)cols, G4_MAX_STEP_COLS), steps = stride / 64;
    t->x_stride = stride;
    t->steps = (int)steps;
    t->x = g4_alloc(NULL, (size_t)n * stride, sizeof *t->x);
    t->q = g4_alloc(NULL, (size_t)n * stride, 1);
    t->d = g4_alloc(NULL, (size_t)n * 2 * steps, sizeof *t->d);
    t->sum = g4_alloc(NULL, (size_t)n * 4 * steps, sizeof *t->sum);
    if (!t->x || !t->q || !t->d || !t->sum) exit(2);
    for (size_t i = 0; i < (size_t)n; i++) {
        for (size_t c = 0; c < (size_t)cols; c++)
            t->x[i * stride + c] = size >= 0 ? size * g4_randf() : size > -2 && c % 2 == 0 ? -size : size;
        k->quantize(t->q + i * stride, t->d + i * 2 * steps, t->sum + i * 4 * steps, t->x + i * stride, (int)stride);
    }
}
static void g4_acts_free(g4_acts *t)
{
    g4_free(NULL, t->x), g4_free(NULL, t->q), g4_free(NULL, t->d), g4_free(NULL, t->sum);
}

/* Products of one shape: within (terms + 2) roundings of the float64 value of the same integers; one token at a time,
 * and groups one at a time, the same bits as all together; nothing written outside the tokens and groups asked for. */
static void g4_test_gemm(const g4_kernels *k, const g4_kernels *scalar, g4_type type, g4_scale_type scale, int rows,
                         int cols, int n, int fill, float size)
{
    g4_matrix w;
    g4_acts x;
    g4_matrix_fill(&w, type, scale, rows, cols, fill);
    g4_acts_make(&x, k, n, cols, size);
    const size_t stride = (size_t)w.groups * 16 + 16, total = (size_t)n * stride;
    float *y = g4_alloc(NULL, total, sizeof *y), *one = g4_alloc(NULL, total, sizeof *one),
          *ref = g4_alloc(NULL, total, sizeof *ref);
    if (!y || !one || !ref) exit(2);
    for (size_t i = 0; i < total; i++) y[i] = one[i] = ref[i] = 77.0f;
    k->gemm[type](y, stride, &w, &x, 0, n, 0, w.groups);
    for (int g = w.groups - 1; g >= 0; g--)
        for (int t = 0; t < n; t++)
            k->gemm[type](one + (size_t)t * stride + 16 * (size_t)g, stride, &w, &x, t, t + 1, g, g + 1);
    G4_EXPECT_BITS(y, one, total, "%s type %d %dx%d x %d: one token and panel differ", k->isa, (int)type, rows, cols,
                   n);
    int bad = 0, outside = 0;
    const int quantised = g4_is_quantised(type);
    for (int t = 0; t < n; t++) {
        for (int r = 0; r < rows; r++) {
            double sum = 0, magnitude = 0;
            for (int c = 0; c < cols; c++) {
                double scale_w, min;
                const double v = g4_element(&w, r, c, &scale_w, &min);
                const double a = quantised ? (double)x.q[(size_t)t * x.x_stride + (size_t)c] *
                                                 (double)x.d[(size_t)t * 2 * (size_t)x.steps + (size_t)c / 32]
                                           : (double)x.x[(size_t)t * x.x_stride + (size_t)c];
                sum += (v * scale_w + min) * a;
                /* minima go with what is taken off q */
                const double most = g4_steps_of[type].mins ? fmax(v, 16) : v;
                magnitude += (fabs(most * scale_w) + fabs(min)) * fabs(a);
            }
            const double terms = quantised ? 4.0 * ((cols + 31) / 32) : 64.0 * w.steps;
            if (!(fabs((double)y[(size_t)t * stride + (size_t)r] - sum) <= (terms + 2) * 1.2e-7 * magnitude)) bad++;
        }
        for (size_t r = (size_t)w.groups * 16; r < stride; r++) outside += y[(size_t)t * stride + r] != 77.0f;
    }
    G4_EXPECT(bad == 0, "%s type %d scale %d %dx%d x %d fill %d: %d values off", k->isa, (int)type, (int)scale, rows,
              cols, n, fill, bad);
    G4_EXPECT(outside == 0, "%s: wrote outside its groups", k->isa);
    /* Unit scales and unit steps: the sums are integers below 2^24, so every table must give the same bits. */
    if (quantised && fill == G4_FILL_UNIT && cols <= 512) {
        for (size_t i = 0; i < (size_t)n * 2 * (size_t)x.steps; i++) x.d[i] = 1.0f;
        k->gemm[type](y, stride, &w, &x, 0, n, 0, w.groups);
        scalar->gemm[type](ref, stride, &w, &x, 0, n, 0, w.groups);
        G4_EXPECT_BITS(y, ref, total, "%s type %d: integer sums differ from scalar", k->isa, (int)type);
    }
    /* Part of the tokens and groups only. */
    if (n > 2 && w.groups > 1) {
        for (size_t i = 0; i < total; i++) one[i] = 77.0f;
        k->gemm[type](one + stride + 16, stride, &w, &x, 1, n - 1, 1, w.groups);
        k->gemm[type](one, stride, &w, &x, 2, 2, 0, w.groups);
        k->gemm[type](one, stride, &w, &x, 0, n, 1, 1);
        outside = 0;
        for (size_t i = 0; i < total; i++) {
            const size_t t = i / stride, r = i % stride;
            if (t < 1 || t >= (size_t)n - 1 || r < 16 || r >= (size_t)w.groups * 16) outside += one[i] != 77.0f;
        }
        G4_EXPECT(outside == 0, "%s: a range of tokens and groups wrote %d values outside", k->isa, outside);
    }
    g4_free(NULL, (void *)(uintptr_t)w.data);
    g4_free(NULL, y), g4_free(NULL, one), g4_free(NULL, ref);
    g4_acts_free(&x);
}

/* A product of bytes, q8_0 or without a type of scales q8_row, with inputs of 16 bits: the same bits as the scalar one,
 * inputs and outputs; as close to the product of the stored weights and the float32 inputs as half a unit of each input
 * and a unit of each weight allow; nothing written outside; limits kept. `size` as in g4_acts_make; one sign everywhere
 * brings a sum to its bound. */
static void g4_test_product16(const g4_kernels *k, const g4_kernels *scalar, g4_scale_type scale, int rows, int cols,
                              int n, int fill, float size)
{
    g4_matrix w;
    g4_acts x;
    const g4_type type = scale == G4_SCALE_NONE ? G4_TYPE_Q8_ROW : G4_TYPE_Q8_0;
    g4_matrix_fill(&w, type, scale, rows, cols, fill);
    g4_acts_make(&x, k, n, cols, size);
    const size_t padded = (size_t)(w.steps * g4_steps_of[type].cols), stride = (size_t)w.groups * 16 + 16,
                 total = (size_t)n * stride;
    int16_t *q[2];
    float *unit[2], *y[2], *limited = g4_alloc(NULL, total, sizeof *limited);
    for (int i = 0; i < 2; i++) {
        q[i] = g4_alloc(NULL, (size_t)n * padded, sizeof *q[i]);
        unit[i] = g4_alloc(NULL, (size_t)n, sizeof *unit[i]), y[i] = g4_alloc(NULL, total, sizeof *y[i]);
        if (!q[i] || !unit[i] || !y[i] || !limited) exit(2);
        for (size_t j = 0; j < total; j++) y[i][j] = limited[j] = 77.0f;
        for (size_t t = 0; t < (size_t)n; t++)
            (i ? scalar : k)->quantize16(q[i] + t * padded, unit[i] + t, x.x + t * x.x_stride, (int)padded);
        (i ? scalar : k)->product16[type](y[i], stride, &w, q[i], unit[i], n, -INFINITY, INFINITY);
    }
    G4_EXPECT_BITS(q[0], q[1], (size_t)n * padded, "%s quantize16 of %d: integers differ from scalar", k->isa, cols);
    G4_EXPECT_BITS(unit[0], unit[1], (size_t)n, "%s quantize16 of %d: units differ from scalar", k->isa, cols);
    G4_EXPECT_BITS(y[0], y[1], total, "%s product16 %dx%d x %d differs from scalar", k->isa, rows, cols, n);
    const float most = fabsf(y[0][0]) / 2;
    k->product16[type](limited, stride, &w, q[0], unit[0], n, -most, most / 2);
    int bad = 0, beyond = 0, outside = 0;
    for (size_t t = 0; t < (size_t)n; t++) {
        double norm = 0;
        for (size_t c = 0; c < padded; c++) {
            const int v = q[0][t * padded + c / 32 * 32 + c % 32 / 2 + c % 2 * 16];
            const double off = fabs((double)x.x[t * x.x_stride + c] - v * (double)unit[0][t]);
            beyond += abs(v) > G4_MAX_FACTOR16 || off > 0.51 * (double)unit[0][t];
            norm += (double)v * v;
        }
        beyond += sqrt(norm) > (double)G4_NORM_PRODUCT16 + 0.5 * sqrt((double)padded) + 1;
        for (int r = 0; r < rows; r++) {
            double sum = 0, off = 0, squares = 0, s, min;
            for (int b = 0; b < (int)padded / 32; b++) {
                g4_element(&w, r, 32 * b, &s, &min);
                squares += s * s;
            }
            const double row_unit = sqrt(squares * 32) * 128 / (double)G4_NORM_PRODUCT16;
            for (int c = 0; c < cols; c++) {
                const double v = g4_element(&w, r, c, &s, &min) * s, a = (double)x.x[t * x.x_stride + (size_t)c];
                sum += v * a;
                off += fabs(v) * 0.51 * (double)unit[0][t] + (fabs(a) + (double)unit[0][t]) * 1.01 * row_unit;
            }
            const float got = y[0][t * stride + (size_t)r], within = limited[t * stride + (size_t)r];
            bad += !(fabs((double)got - sum) <= off);
            bad += within != fminf(fmaxf(got, -most), most / 2);
        }
        for (size_t r = (size_t)w.groups * 16; r < stride; r++)
            outside += y[0][t * stride + r] != 77.0f || limited[t * stride + r] != 77.0f;
    }
    G4_EXPECT(beyond == 0, "%s quantize16 of %d, size %g: %d values beyond their bounds", k->isa, cols, (double)size,
              beyond);
    G4_EXPECT(bad == 0, "%s product16 scale %d %dx%d x %d fill %d: %d values off", k->isa, (int)scale, rows, cols, n,
              fill, bad);
    G4_EXPECT(outside == 0, "%s product16: wrote outside its groups", k->isa);
    x.x[1] = INFINITY; /* no number comes out, but no trap either */
    k->quantize16(q[0], unit[0], x.x, (int)padded);
    k->product16[type](y[0], stride, &w, q[0], unit[0], 1, -INFINITY, INFINITY);
    G4_EXPECT(fill == G4_FILL_ZERO || !isfinite(y[0][0]), "%s product16: an infinite input gave %g", k->isa,
              (double)y[0][0]);
    for (int i = 0; i < 2; i++) g4_free(NULL, q[i]), g4_free(NULL, unit[i]), g4_free(NULL, y[i]);
    g4_free(NULL, limited), g4_free(NULL, (void *)(uintptr_t)w.data);
    g4_acts_free(&x);
}

/* ---- Small kernels ---------------------------------------------------------------------------------- */

static void g4_test_quantize(const g4_kernels *k, const g4_kernels *scalar)
{
    enum { N = 32 * 9 };
    float x[N], d[2][N / 32];
    int8_t q[2][N];
    int16_t sum[2][N / 16];
    for (int round = 0; round < 200; round++) {
        for (int i = 0; i < N; i++) {
            x[i] = g4_randf();
            if (i / 32 == 1) x[i] = 0.0f;
            if (i / 32 == 2) x[i] *= 1e30f;
            if (i / 32 == 3) x[i] *= 1e-30f;
            if (i / 32 == 4) x[i] = (float)((int)(g4_rand() % 509) - 254) * 0.5f; /* ties */
            if (i / 32 == 5) x[i] = i % 32 == 7 ? -3.0f : -0.0f;
            if (i / 32 == 6) x[i] = (float)(g4_rand() % 400) * 1.401298464e-45f; /* subnormal */
        }
        x[4 * 32] = 127.0f;
        memset(q, 99, sizeof q);
        for (int i = 0; i < 2; i++) (i ? k : scalar)->quantize(q[i], d[i], sum[i], x, N);
        G4_EXPECT(!memcmp(q[0], q[1], sizeof q[0]) && !memcmp(d[0], d[1], sizeof d[0]) &&
                      !memcmp(sum[0], sum[1], sizeof sum[0]),
                  "%s: quantize differs from scalar", k->isa);
        for (int b = 0; b < N / 32; b++) {
            int s[2] = { 0 }, least = 0;
            for (int i = 0; i < 32; i++) s[i / 16] += q[1][32 * b + i], least = g4_min_int(least, q[1][32 * b + i]);
            G4_EXPECT(s[0] == sum[1][2 * b] && s[1] == sum[1][2 * b + 1] && least >= -127,
                      "%s: sums %d %d, not %d %d, least %d", k->isa, (int)sum[1][2 * b], (int)sum[1][2 * b + 1], s[0],
                      s[1], least);
        }
    }
    k->quantize(q[1], d[1], sum[1], x, 0);
}

static void g4_test_rmsnorm(const g4_kernels *k)
{
    static const int sizes[] = { 1, 3, 7, 8, 15, 16, 31, 33, 64, 72, 100, 256, 512, 1536, 5376 };
    enum { MAX = 5376 };
    float *x = g4_alloc(NULL, MAX, sizeof *x), *w = g4_alloc(NULL, MAX, sizeof *w),
          *y = g4_alloc(NULL, MAX + 16, sizeof *y);
    if (!x || !w || !y) exit(2);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int mode = 0; mode < 4; mode++) { /* bit 0: no weights; bit 1: in place */
            const int n = sizes[i];
            double ss = 0, worst = 0;
            for (int j = 0; j < n; j++) x[j] = 3.0f * g4_randf(), w[j] = g4_randf(), ss += (double)x[j] * (double)x[j];
            const double scale = 1.0 / sqrt(ss / n + 1e-6);
            for (int j = 0; j < n + 16; j++) y[j] = 77.0f;
            if (mode & 2) memcpy(y, x, (size_t)n * sizeof *x);
            k->rmsnorm(y, mode & 2 ? y : x, mode & 1 ? NULL : w, n, 1e-6f);
            for (int j = 0; j < n; j++) {
                const double want = (double)x[j] * scale * (mode & 1 ? 1.0 : (double)w[j]);
                const double off = fabs((double)y[j] - want) - (4.0 + n / 2.0) * 6e-8 * fabs(want);
                if (!(off <= worst)) worst = off;
            }
            for (int j = n; j < n + 16; j++) G4_EXPECT(y[j] == 77.0f, "%s: rmsnorm wrote past %d", k->isa, n);
            G4_EXPECT(worst <= 0, "%s: rmsnorm n %d mode %d off by %g", k->isa, n, mode, worst);
        }
    for (int j = 0; j < 40; j++) x[j] = 0.0f;
    k->rmsnorm(y, x, NULL, 40, 1e-6f);
    for (int j = 0; j < 40; j++) G4_EXPECT(y[j] == 0.0f, "%s: rmsnorm of zeros", k->isa);
    g4_free(NULL, x), g4_free(NULL, w), g4_free(NULL, y);
}

static void g4_test_geglu(const g4_kernels *k)
{
    enum { N = 4096 };
    float *x = g4_alloc(NULL, N, sizeof *x), *up = g4_alloc(NULL, N, sizeof *up),
          *y = g4_alloc(NULL, N + 16, sizeof *y);
    if (!x || !up || !y) exit(2);
    for (int round = 0; round < 4; round++) {
        const int n = round == 0 ? N : 13 * round;
        double worst = 0;
        for (int j = 0; j < n; j++) {
            x[j] = round == 0 ? (float)(j - N / 2) * (20.0f / N) : 200.0f * g4_randf();
            up[j] = g4_randf();
        }
        for (int j = 0; j < n + 16; j++) y[j] = 77.0f;
        k->geglu(y, x, up, n);
        for (int j = 0; j < n; j++) {
            const double g = (double)x[j],
                         want = 0.5 * g * (1.0 + tanh(0.7978845608028654 * (g + 0.044715 * g * g * g))) * (double)up[j];
            const double off = fabs((double)y[j] - want) / (fabs(g * (double)up[j]) + 1e-30);
            if (!(off <= worst)) worst = off;
        }
        G4_EXPECT(worst < 0x1p-20, "%s: geglu off by %g |x|", k->isa, worst);
        for (int j = n; j < n + 16; j++) G4_EXPECT(y[j] == 77.0f, "%s: geglu wrote past %d", k->isa, n);
        memcpy(y, x, (size_t)n * sizeof *x);
        float *z = g4_alloc(NULL, N, sizeof *z);
        if (!z) exit(2);
        k->geglu(z, x, up, n);
        k->geglu(y, y, up, n);
        G4_EXPECT_BITS(y, z, (size_t)n, "%s: geglu in place over gate", k->isa);
        memcpy(y, up, (size_t)n * sizeof *x);
        k->geglu(y, x, y, n);
        G4_EXPECT_BITS(y, z, (size_t)n, "%s: geglu in place over up", k->isa);
        g4_free(NULL, z);
    }
    const float big[2] = { -3.0e38f, 3.0e38f }, one[2] = { 1.0f, 1.0f };
    float out[2];
    k->geglu(out, big, one, 2);
    G4_EXPECT(out[0] == 0.0f && out[1] == 3.0e38f, "%s: geglu of +-3e38 gives %g %g", k->isa, (double)out[0],
              (double)out[1]);
    g4_free(NULL, x), g4_free(NULL, up), g4_free(NULL, y);
}

static void g4_test_softcap(const g4_kernels *k)
{
    enum { N = 1003 };
    float x[N + 16], y[N + 16];
    double worst = 0;
    for (int i = 0; i < N + 16; i++) x[i] = y[i] = (float)(i - N / 2) * (i % 2 ? 0.3f : 0.01f);
    x[0] = y[0] = -1e30f, x[1] = y[1] = 1e30f;
    k->softcap(y, N, 30.0f);
    for (int i = 0; i < N; i++) {
        const double off = fabs((double)y[i] - 30.0 * tanh((double)x[i] / 30.0));
        if (!(off <= worst)) worst = off;
    }
    G4_EXPECT(worst < 30 * 0x1p-21, "%s: softcap off by %g", k->isa, worst);
    G4_EXPECT_BITS(y + N, x + N, 16, "%s: softcap wrote past its end", k->isa);
    memcpy(y + 500, x + 500, 3 * sizeof *x);
    float whole[N];
    memcpy(whole, x, sizeof whole);
    k->softcap(whole, N, 30.0f);
    k->softcap(y + 500, 3, 30.0f);
    G4_EXPECT_BITS(y + 500, whole + 500, 3, "%s: softcap of a part differs", k->isa);
}

/* ---- Attention ----------------------------------------------------------------------------------------- */

/* Two tiles, n_q queries with random ranges (some empty): close to the softmax in float64, and each query alone gets
 * the same bits. */
static void g4_test_attend(const g4_kernels *k, g4_kv_type type, int head_dim, int n_q, float size)
{
    enum { TILES = 2 };
    const size_t hd = (size_t)head_dim, page = hd * G4_PAGE, width = type == G4_KV_F32 ? 4 : type == G4_KV_F16 ? 2 : 1;
    double *kd = calloc(TILES * page, sizeof *kd), *vd = calloc(TILES * page, sizeof *vd);
    uint8_t *kb = g4_alloc(NULL, TILES * page, width), *vb = g4_alloc(NULL, TILES * page, width);
    float scales[2][TILES][G4_PAGE];
    float *q = g4_alloc(NULL, (size_t)n_q * hd, sizeof *q), *o[2], *m[2], *l[2];
    int *lo = calloc((size_t)n_q * TILES, sizeof *lo), *hi = calloc((size_t)n_q * TILES, sizeof *hi);
    if (!kd || !vd || !kb || !vb || !q || !lo || !hi) exit(2);
    for (int t = 0; t < TILES; t++)
        for (int j = 0; j < G4_PAGE; j++) {
            scales[0][t][j] = (1.0f + g4_randf() / 2) / 127.0f;
            scales[1][t][j] = (1.0f + g4_randf() / 2) / 127.0f;
            for (size_t d = 0; d < hd; d++)
                for (int is_v = 0; is_v < 2; is_v++) {
                    const size_t at = (size_t)t * page + (is_v ? (size_t)j * hd + d : d * G4_PAGE + (size_t)j);
                    const float f = g4_randf();
                    double value;
                    if (type == G4_KV_F32) {
                        memcpy((is_v ? vb : kb) + 4 * at, &f, 4);
                        value = (double)f;
                    } else if (type == G4_KV_F16) {
                        const uint16_t h = g4_f32_to_f16(f);
                        memcpy((is_v ? vb : kb) + 2 * at, &h, 2);
                        value = (double)g4_f16_to_f32(h);
                    } else {
                        const int8_t i = (int8_t)((int)(g4_rand() % 255) - 127);
                        (is_v ? vb : kb)[at] = (uint8_t)i;
                        value = (double)i * (double)scales[is_v][t][j];
                    }
                    (is_v ? vd : kd)[at] = value;
                }
        }
    for (size_t i = 0; i < (size_t)n_q * hd; i++) q[i] = size * g4_randf();
    for (int i = 0; i < n_q * TILES; i++) {
        const int a = (int)(g4_rand() % 65), b = (int)(g4_rand() % 65), shape = (int)(g4_rand() % 4);
        lo[i] = shape == 0 ? 0 : shape == 1 ? a : g4_min_int(a, b);
        hi[i] = shape == 0 ? G4_PAGE : shape == 1 ? a : g4_max_int(a, b);
    }
    for (int s = 0; s < 2; s++) { /* 0: all queries at once; 1: one by one */
        o[s] = g4_alloc(NULL, (size_t)n_q * hd, sizeof *o[s]), m[s] = g4_alloc(NULL, (size_t)n_q, sizeof *m[s]);
        l[s] = g4_alloc(NULL, (size_t)n_q, sizeof *l[s]);
        if (!o[s] || !m[s] || !l[s]) exit(2);
        for (int i = 0; i < n_q; i++) m[s][i] = -INFINITY;
        for (int t = 0; t < TILES; t++) {
            const g4_kv_tile tile = { .k = kb + (size_t)t * page * width,
                                      .v = vb + (size_t)t * page * width,
                                      .k_scale = type == G4_KV_Q8_0 ? scales[0][t] : NULL,
                                      .v_scale = type == G4_KV_Q8_0 ? scales[1][t] : NULL,
                                      .next = t % 2 ? kb : NULL };
            const int *lt = lo + t * n_q, *ht = hi + t * n_q;
            if (s == 0)
                k->attend(&tile, type, head_dim, q, n_q, lt, ht, m[s], l[s], o[s]);
            else
                for (int i = 0; i < n_q; i++)
                    k->attend(&tile, type, head_dim, q + (size_t)i * hd, 1, lt + i, ht + i, m[s] + i, l[s] + i,
                              o[s] + (size_t)i * hd);
        }
    }
    G4_EXPECT_BITS(o[0], o[1], (size_t)n_q * hd, "%s kv %d head_dim %d x %d: alone and together differ", k->isa,
                   (int)type, head_dim, n_q);
    G4_EXPECT_BITS(l[0], l[1], (size_t)n_q, "%s: l alone and together differ", k->isa);
    G4_EXPECT_BITS(m[0], m[1], (size_t)n_q, "%s: m alone and together differ", k->isa);
    double worst = 0;
    int untouched = 1;
    double *score = calloc(TILES * G4_PAGE, sizeof *score), *want = calloc(hd, sizeof *want);
    if (!score || !want) exit(2);
    for (int i = 0; i < n_q; i++) {
        double top = -INFINITY, sum = 0, bound = 0;
        int any = 0;
        for (int t = 0; t < TILES; t++)
            for (int j = lo[t * n_q + i]; j < hi[t * n_q + i]; j++) {
                double s = 0, magnitude = 0;
                for (size_t d = 0; d < hd; d++) {
                    const double term = (double)q[(size_t)i * hd + d] * kd[(size_t)t * page + d * G4_PAGE + (size_t)j];
                    s += term, magnitude += fabs(term);
                }
                score[t * G4_PAGE + j] = s;
                if (s > top) top = s;
                if (magnitude * head_dim * 6e-8 > bound) bound = magnitude * head_dim * 6e-8;
                any = 1;
            }
        if (!any) {
            untouched = untouched && l[0][i] == 0.0f && isinf(m[0][i]);
            continue;
        }
        memset(want, 0, hd * sizeof *want);
        for (int t = 0; t < TILES; t++)
            for (int j = lo[t * n_q + i]; j < hi[t * n_q + i]; j++) {
                const double p = exp(score[t * G4_PAGE + j] - top);
                sum += p;
                for (size_t d = 0; d < hd; d++) want[d] += p * vd[(size_t)t * page + (size_t)j * hd + d];
            }
        /* values are within 1.5: an error e in a score moves the result by at most 2 e * 1.5, exp and sums add 2^-22
         * and 128 roundings */
        for (size_t d = 0; d < hd; d++) {
            const double off =
                fabs((double)o[0][(size_t)i * hd + d] / (double)l[0][i] - want[d] / sum) - 3 * bound - 4e-5;
            if (!(off <= worst)) worst = off;
        }
    }
    G4_EXPECT(worst <= 0, "%s kv %d head_dim %d x %d: off by %g more than the bound", k->isa, (int)type, head_dim, n_q,
              worst);
    G4_EXPECT(untouched, "%s: a query without keys changed", k->isa);
    for (int s = 0; s < 2; s++) g4_free(NULL, o[s]), g4_free(NULL, m[s]), g4_free(NULL, l[s]);
    free(kd), free(vd), free(score), free(want), free(lo), free(hi);
    g4_free(NULL, kb), g4_free(NULL, vb), g4_free(NULL, q);
}

static int g4_rand_within(int most) { return (int)(g4_rand() % (2 * (unsigned)most + 1)) - most; }

/* Two tiles, the second of n_keys positions: as close to the softmax in float64 of the same integers as half a unit of
 * each weight allows, and each query alone gets the same bits. `size` of a score is at most that; flat: all equal, so
 * that the sums of a tile come to their bounds. */
static void g4_test_attend16(const g4_kernels *k, int head_dim, int n_q, int n_keys, float size, int flat)
{
    enum { TILES = 2, KEYS = TILES * G4_PAGE };
    const size_t hd = (size_t)head_dim, width = (hd + 15) / 16 * 16;
    int16_t *q = g4_alloc(NULL, (size_t)n_q * hd, sizeof *q), *kk = g4_alloc(NULL, KEYS * hd, sizeof *kk);
    int16_t *v = g4_alloc(NULL, KEYS * width, sizeof *v);
    float *q_unit = g4_alloc(NULL, (size_t)n_q, sizeof *q_unit), k_unit[KEYS], *o[2], *m[2], *l[2];
    double *want = calloc(hd, sizeof *want), *off = calloc(hd, sizeof *off);
    if (!q || !kk || !v || !q_unit || !want || !off) exit(2);
    /* as large as a norm of G4_NORM16 lets every element be */
    const int most = g4_min_int((int)(G4_NORM16 / sqrt((double)head_dim)), G4_MAX_FACTOR16);
    for (size_t i = 0; i < (size_t)n_q * hd; i++) q[i] = (int16_t)(flat ? most : g4_rand_within(most));
    for (size_t i = 0; i < KEYS * hd; i++) kk[i] = (int16_t)(flat ? -most : g4_rand_within(most));
    for (size_t i = 0; i < KEYS * width; i++)
        v[i] = (int16_t)(flat ? G4_MAX_FACTOR16 : g4_rand_within(G4_MAX_FACTOR16));
    for (int i = 0; i < n_q; i++) q_unit[i] = size / G4_NORM16;
    for (int j = 0; j < KEYS; j++) k_unit[j] = (1.0f + (flat ? 0 : g4_randf())) / G4_NORM16;
    const int keys[TILES] = { G4_PAGE, n_keys };
    g4_tile16 tiles[TILES];
    for (int t = 0; t < TILES; t++)
        tiles[t] = (g4_tile16) { kk + (size_t)t * G4_PAGE * hd, v + (size_t)t * G4_PAGE * width, k_unit + t * G4_PAGE,
                                 1.0f / G4_MAX_FACTOR16 };
    for (int s = 0; s < 2; s++) { /* 0: all queries at once; 1: one by one */
        o[s] = g4_alloc(NULL, (size_t)n_q * width, sizeof *o[s]), m[s] = g4_alloc(NULL, (size_t)n_q, sizeof *m[s]);
        l[s] = g4_alloc(NULL, (size_t)n_q, sizeof *l[s]);
        if (!o[s] || !m[s] || !l[s]) exit(2);
        for (int i = 0; i < n_q; i++) m[s][i] = -INFINITY;
        for (int t = 0; t < TILES; t++)
            for (int i = 0; i < (s ? n_q : 1); i++) {
                const size_t at = (size_t)i;
                k->attend16(&tiles[t], keys[t], head_dim, q + at * hd, q_unit + at, s ? 1 : n_q, m[s] + at, l[s] + at,
                            o[s] + at * width);
            }
    }
    for (size_t i = 0; i < (size_t)n_q; i++)
        G4_EXPECT_BITS(o[0] + i * width, o[1] + i * width, hd, "%s attend16 %d x %d: alone and together differ", k->isa,
                       head_dim, n_q);
    G4_EXPECT_BITS(l[0], l[1], (size_t)n_q, "%s attend16: l alone and together differ", k->isa);
    double worst = 0;
    for (size_t i = 0; i < (size_t)n_q; i++) {
        double p[TILES][G4_PAGE], top = -INFINITY, sum = 0;
        for (int t = 0; t < TILES; t++)
            for (int j = 0; j < keys[t]; j++) {
                double dot = 0;
                for (size_t d = 0; d < hd; d++)
                    dot += (double)q[i * hd + d] * tiles[t].k[(d / 2 * G4_PAGE + (size_t)j) * 2 + d % 2];
                p[t][j] = dot * (double)q_unit[i] * (double)tiles[t].k_unit[j];
                top = fmax(top, p[t][j]);
            }
        memset(want, 0, hd * sizeof *want);
        memset(off, 0, hd * sizeof *off);
        for (int t = 0; t < TILES; t++)
            for (int j = 0; j < keys[t]; j++) sum += p[t][j] = exp(p[t][j] - top);
        for (int pass = 0; pass < 2; pass++) /* what is wanted, then what rounding may do to it */
            for (int t = 0; t < TILES; t++) {
                double most_p = 0, all = 0;
                for (int j = 0; j < keys[t]; j++) most_p = fmax(most_p, p[t][j]), all += p[t][j];
                const double unit = fmax(most_p / G4_MAX_FACTOR16, all / G4_WEIGHTS16);
                for (int j = 0; j < keys[t]; j++)
                    for (size_t d = 0; d < hd; d++) {
                        const int16_t integer = tiles[t].v[((size_t)j / 2 * width + d) * 2 + (size_t)j % 2];
                        const double value = (double)integer / G4_MAX_FACTOR16;
                        if (pass == 0)
                            want[d] += p[t][j] * value / sum;
                        else
                            off[d] += 0.51 * unit * fabs(value - want[d]) / sum;
                    }
            }
        /* a score is off by 2^-22 of itself, exp by 2^-22, sums of 128 terms by 128 roundings */
        for (size_t d = 0; d < hd; d++) {
            const double got = (double)o[0][i * width + d] / (double)l[0][i];
            worst = fmax(worst, fabs(got - want[d]) - off[d] - (double)size * 2e-6 - 2e-5);
        }
        if (isnan(o[0][i * width]) || isnan(l[0][i])) worst = INFINITY;
    }
    G4_EXPECT(worst <= 0, "%s attend16 %d x %d, %d keys: off by %g more than the bound", k->isa, head_dim, n_q, n_keys,
              worst);
    for (int s = 0; s < 2; s++) g4_free(NULL, o[s]), g4_free(NULL, m[s]), g4_free(NULL, l[s]);
    g4_free(NULL, q), g4_free(NULL, kk), g4_free(NULL, v), g4_free(NULL, q_unit);
    free(want), free(off);
}

/* Integers as the scalar kernel rounds them, ties, bounds and odd lengths among them. */
static void g4_test_round16(const g4_kernels *k, const g4_kernels *scalar)
{
    float x[83];
    int16_t y[84], want[84];
    for (int i = 0; i < 83; i++) x[i] = i % 3 ? 3.0f * g4_randf() : (float)(i - 40) * 0.5f / 1024.0f;
    x[5] = 1e30f, x[6] = -1e30f, x[7] = 32.0f, x[81] = -40.0f;
    for (int n = 1; n <= 83; n++) {
        y[n] = want[n] = 99; /* stays */
        k->round16(y, x, 1024.0f, n);
        scalar->round16(want, x, 1024.0f, n);
        G4_EXPECT(!memcmp(y, want, (size_t)(n + 1) * sizeof *y), "%s round16: %d integers differ", k->isa, n);
    }
}

/* ---- Rates ------------------------------------------------------------------------------------------------ */

static double g4_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
/* Best seconds of one call, over about 0.2 s. */
#define G4_BEST(seconds, call)                                                                                         \
    do {                                                                                                               \
        (seconds) = 1e9;                                                                                               \
        for (double end_ = g4_now() + 0.2; g4_now() < end_;) {                                                         \
            const double start_ = g4_now();                                                                            \
            call;                                                                                                      \
            (seconds) = fmin((seconds), g4_now() - start_);                                                            \
        }                                                                                                              \
    } while (0)

static void g4_time(const g4_kernels *k)
{
    enum { ROWS = 256, COLS = 1536, TOKENS = 64 };
    g4_acts x;
    g4_acts_make(&x, k, TOKENS, COLS, 1.0f);
    float *y = g4_alloc(NULL, (size_t)TOKENS * ROWS, sizeof *y);
    if (!y) exit(2);
    double s;
    for (int type = G4_N_TYPES - 1; type >= 0; type--) {
        g4_matrix w;
        const g4_scale_type scale = g4_is_row((g4_type)type) ? G4_SCALE_NONE : G4_SCALE_F16;
        g4_matrix_fill(&w, (g4_type)type, scale, ROWS, COLS, G4_FILL_RANDOM);
        const double macs = (double)ROWS * COLS;
        G4_BEST(s, k->gemm[type](y, ROWS, &w, &x, 0, TOKENS, 0, w.groups));
        printf("%-11s %-6s panel %7.1f G multiply-adds/s", k->isa, g4_type_name((uint32_t)type),
               macs * TOKENS / s * 1e-9);
        G4_BEST(s, k->gemm[type](y, ROWS, &w, &x, 0, 1, 0, w.groups));
        printf("   one token %6.1f G, %6.1f GB/s from cache\n", macs / s * 1e-9,
               (double)w.groups * (double)w.group_bytes / s * 1e-9);
        if (k->product16[type]) {
            int16_t *x16 = g4_alloc(NULL, (size_t)TOKENS * COLS, sizeof *x16);
            if (!x16) exit(2);
            float unit[TOKENS];
            for (size_t t = 0; t < TOKENS; t++) k->quantize16(x16 + t * COLS, unit + t, x.x + t * COLS, COLS);
            G4_BEST(s, k->product16[type](y, ROWS, &w, x16, unit, TOKENS, -INFINITY, INFINITY));
            printf("%-11s %-6s x 16 bits, panel %7.1f G multiply-adds/s\n", k->isa, g4_type_name((uint32_t)type),
                   macs * TOKENS / s * 1e-9);
            g4_free(NULL, x16);
        }
        g4_free(NULL, (void *)(uintptr_t)w.data);
    }
    G4_BEST(s, k->quantize(x.q, x.d, x.sum, x.x, COLS));
    printf("%-11s quantize %5.2f ns a value", k->isa, s * 1e9 / COLS);
    G4_BEST(s, k->rmsnorm(y, x.x, x.x, COLS, 1e-6f));
    printf("   rmsnorm %5.2f", s * 1e9 / COLS);
    G4_BEST(s, k->geglu(y, x.x, x.x, COLS));
    printf("   geglu %5.2f\n", s * 1e9 / COLS);
    static const char *const kv[] = { "f16", "f32", "q8_0" };
    for (int type = 0; type < 3; type++)
        for (int hd = type == G4_KV_F32 ? 64 : 256; hd <= 512; hd *= 2) { /* 64: a head of the vision tower */
            const size_t page = (size_t)hd * G4_PAGE;
            void *keys = g4_alloc(NULL, page, 4), *values = g4_alloc(NULL, page, 4);
            float scale[G4_PAGE], m[TOKENS], l[TOKENS];
            float *q = g4_alloc(NULL, (size_t)TOKENS * (size_t)hd, sizeof *q),
                  *o = g4_alloc(NULL, (size_t)TOKENS * (size_t)hd, sizeof *o);
            int lo[TOKENS], hi[TOKENS];
            if (!keys || !values || !q || !o) exit(2);
            for (int j = 0; j < G4_PAGE; j++) scale[j] = 1.0f;
            for (int i = 0; i < TOKENS; i++) lo[i] = 0, hi[i] = G4_PAGE, m[i] = 0.0f, l[i] = 0.0f;
            const g4_kv_tile tile = { keys, values, type == G4_KV_Q8_0 ? scale : NULL,
                                      type == G4_KV_Q8_0 ? scale : NULL, keys };
            printf("%-11s attend %-4s %d:", k->isa, kv[type], hd);
            static const int counts[] = { 1, 2, 4, 8, 64 };
            for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
                G4_BEST(s, k->attend(&tile, (g4_kv_type)type, hd, q, counts[c], lo, hi, m, l, o));
                printf("  %d queries %5.1f G", counts[c], 2.0 * (double)page * counts[c] / s * 1e-9);
            }
            printf("\n");
            g4_free(NULL, keys), g4_free(NULL, values), g4_free(NULL, q), g4_free(NULL, o);
        }
    if (k->attend16) {
        enum { HEAD = 64 };
        int16_t *q = g4_alloc(NULL, 3 * TOKENS * HEAD, sizeof *q); /* keys and values behind it */
        float *o = g4_alloc(NULL, TOKENS * HEAD, sizeof *o), unit[TOKENS], m[TOKENS], l[TOKENS];
        if (!q || !o) exit(2);
        for (int i = 0; i < 3 * TOKENS * HEAD; i++) q[i] = (int16_t)g4_rand_within(G4_NORM16 / 8);
        for (int i = 0; i < TOKENS; i++) unit[i] = 1.0f / G4_NORM16, m[i] = 0.0f, l[i] = 0.0f;
        const g4_tile16 tile = { q + TOKENS * HEAD, q + 2 * TOKENS * HEAD, unit, 1.0f };
        G4_BEST(s, k->attend16(&tile, G4_PAGE, HEAD, q, unit, TOKENS, m, l, o));
        printf("%-11s attend in 16 bits %d:  %d queries %5.1f G\n", k->isa, HEAD, TOKENS,
               2.0 * HEAD * G4_PAGE * TOKENS / s * 1e-9);
        g4_free(NULL, q), g4_free(NULL, o);
    }
    g4_free(NULL, y);
    g4_acts_free(&x);
}

int main(int argc, char **argv)
{
    int n;
    const g4_kernels *const *tables = g4_kernel_tables(&n);
    const g4_kernels *scalar = tables[n - 1];
    g4_test_types();
    for (int i = 0; i < n; i++) {
        const g4_kernels *k = tables[i];
        if (!k->usable()) {
            printf("%s: ", k->isa);
            G4_SKIP("this CPU does not have it");
            continue;
        }
        const int before = g4_failed, passed = g4_passed;
        g4_test_quantize(k, scalar);
        g4_test_rmsnorm(k);
        g4_test_geglu(k);
        g4_test_softcap(k);
        for (int type = 0; type < G4_N_TYPES; type++)
            for (g4_scale_type scale = G4_SCALE_NONE; scale <= G4_SCALE_BF16; scale++) {
                if (!(g4_type_get((uint32_t)type)->scale_types >> scale & 1)) continue;
                for (int tokens = 1; tokens <= 9; tokens++) {
                    g4_test_gemm(k, scalar, (g4_type)type, scale, 40, 100, tokens, G4_FILL_RANDOM, 1.0f);
                    g4_test_gemm(k, scalar, (g4_type)type, scale, 33, 320, tokens, G4_FILL_UNIT, 1.0f);
                }
                static const int panels[] = { 12, 13, 14, 15, 16, 67 }; /* weights unpacked once for all: AVX2 */
                for (size_t p = 0; p < sizeof panels / sizeof *panels; p++) {
                    g4_test_gemm(k, scalar, (g4_type)type, scale, 40, 100, panels[p], G4_FILL_RANDOM, 1.0f);
                    g4_test_gemm(k, scalar, (g4_type)type, scale, 33, 320, panels[p], G4_FILL_UNIT, 1.0f);
                    g4_test_gemm(k, scalar, (g4_type)type, scale, 17, 1100, panels[p], G4_FILL_RANDOM, 1.0f);
                    g4_test_gemm(k, scalar, (g4_type)type, scale, 24, 64, panels[p], G4_FILL_MIN, -2.0f);
                    g4_test_gemm(k, scalar, (g4_type)type, scale, 24, 512, panels[p], G4_FILL_UNIT, -1.0f);
                }
                g4_test_gemm(k, scalar, (g4_type)type, scale, 1, 32, 3, G4_FILL_RANDOM, 1e4f);
                g4_test_gemm(k, scalar, (g4_type)type, scale, 17, 1, 3, G4_FILL_UNIT, 1.0f);
                g4_test_gemm(k, scalar, (g4_type)type, scale, 16, 3200, 19, G4_FILL_RANDOM, 1e-3f);
                g4_test_gemm(k, scalar, (g4_type)type, scale, 24, 512, 5, G4_FILL_MIN, -1.0f);
                g4_test_gemm(k, scalar, (g4_type)type, scale, 24, 512, 5, G4_FILL_UNIT, -1.0f);
                g4_test_gemm(k, scalar, (g4_type)type, scale, 24, 200, 5, G4_FILL_ZERO, 1.0f);
                g4_test_gemm(k, scalar, (g4_type)type, scale, 24, 200, 5, G4_FILL_RANDOM, 0.0f);
            }
        for (g4_scale_type scale = G4_SCALE_NONE; k->product16[G4_TYPE_Q8_0] && scale <= G4_SCALE_BF16; scale++) {
            for (int tokens = 1; tokens <= 9; tokens++) {
                g4_test_product16(k, scalar, scale, 40, 100, tokens, G4_FILL_RANDOM, 1.0f);
                g4_test_product16(k, scalar, scale, 300, 33, tokens, G4_FILL_UNIT, 1e-6f);
            }
            g4_test_product16(k, scalar, scale, 17, 1100, 67, G4_FILL_RANDOM, 1e4f);
            g4_test_product16(k, scalar, scale, 16, 3200, 130, G4_FILL_UNIT, 1.0f);
            g4_test_product16(k, scalar, scale, 24, 768, 64, G4_FILL_MIN, -2.0f);
            g4_test_product16(k, scalar, scale, 24, 4096, 5, G4_FILL_MIN, -2.0f);
            g4_test_product16(k, scalar, scale, 24, 512, 5, G4_FILL_MIN, -1.0f);
            g4_test_product16(k, scalar, scale, 16, 32, 3, G4_FILL_MIN, -2.0f);
            g4_test_product16(k, scalar, scale, 24, 200, 5, G4_FILL_ZERO, 1.0f);
            g4_test_product16(k, scalar, scale, 24, 200, 5, G4_FILL_RANDOM, 0.0f);
        }
        static const int dims[] = { 1, 7, 20, 64, 72, 128, 200, 256, 512 },
                         queries[] = { 1, 2, 3, 5, 6, 7, 8, 9, 23, 70 };
        for (int type = G4_KV_F16; type <= G4_KV_Q8_0; type++)
            for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
                for (size_t c = 0; c < sizeof queries / sizeof *queries; c++) {
                    if (dims[d] > 128 && queries[c] > 9) continue;
                    g4_test_attend(k, (g4_kv_type)type, dims[d], queries[c], c % 2 ? 0.3f : 3.0f);
                }
        for (size_t d = 0; k->attend16 && d < sizeof dims / sizeof *dims; d++)
            for (size_t c = 0; dims[d] % 4 == 0 && c < sizeof queries / sizeof *queries; c++) {
                if (dims[d] > 128 && queries[c] > 9) continue;
                g4_test_attend16(k, dims[d], queries[c], 1 + (int)(c * 7 % 64), c % 2 ? 1.0f : 40.0f, 0);
                g4_test_attend16(k, dims[d], queries[c], 64, 1.0f, 1);
            }
        if (k->round16) g4_test_round16(k, scalar);
        printf("%s: %d checks, %d failed\n", k->isa, g4_passed - passed + g4_failed - before, g4_failed - before);
        if (argc > 1 && !strcmp(argv[1], "--time")) g4_time(k);
    }
    return g4_test_end();
}
