/* types.c - the table of weight types: what each is called, how large its steps are, what its products read and how one
 * of its rows becomes float32. The blocks themselves are described beside the declarations in parts.h. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "parts.h"

#include <string.h>

/* ---- Rows of tables ------------------------------------------------------------------------------- */

static const uint8_t *g4_table_bytes(const g4_table *t, int row) { return t->data + (size_t)row * t->row_bytes; }

static void g4_table_row_f32(float *out, const g4_table *t, int row, int col, int n)
{
    memcpy(out, g4_table_bytes(t, row) + sizeof *out * (size_t)col, sizeof *out * (size_t)n);
}

static void g4_table_row_bf16(float *out, const g4_table *t, int row, int col, int n)
{
    const uint8_t *values = g4_table_bytes(t, row) + 2 * (size_t)col;
    for (size_t i = 0; i < (size_t)n; i++) out[i] = g4_bf16_to_f32(g4_load_u16(values + 2 * i));
}

/* The scale of column c of a row of q8_0 or q4_0, which begins with one of 2 bytes for each 32 columns. */
static float g4_table_scale(const g4_table *t, int row, size_t c)
{
    return g4_scale_value(g4_load_u16(g4_table_bytes(t, row) + 2 * (c / 32)), t->scale_type);
}

/* What stands behind the scales. */
static const uint8_t *g4_table_values(const g4_table *t, int row)
{
    return g4_table_bytes(t, row) + 2 * (g4_round_up((size_t)t->cols, 64) / 32);
}

static void g4_table_row_q8_0(float *out, const g4_table *t, int row, int col, int n)
{
    const uint8_t *values = g4_table_values(t, row);
    for (int i = 0; i < n; i++) {
        const size_t c = (size_t)col + (size_t)i;
        out[i] = g4_table_scale(t, row, c) * (float)(int8_t)values[c];
    }
}

static void g4_table_row_q4_0(float *out, const g4_table *t, int row, int col, int n)
{
    const uint8_t *values = g4_table_values(t, row);
    for (int i = 0; i < n; i++) {
        const size_t c = (size_t)col + (size_t)i;
        const uint8_t byte = values[c / 32 * 16 + c % 16];
        out[i] = g4_table_scale(t, row, c) * (float)((c % 32 < 16 ? byte & 15 : byte >> 4) - 8);
    }
}

/* Blocks of GGUF: column c of one becomes a float32. */
typedef float (*g4_block_value_fn)(const uint8_t *block, size_t c);

static void g4_table_blocks(float *out, const g4_table *t, int row, int col, int n, size_t cols, size_t bytes,
                            g4_block_value_fn value)
{
    const uint8_t *blocks = g4_table_bytes(t, row);
    for (int i = 0; i < n; i++) {
        const size_t c = (size_t)col + (size_t)i;
        out[i] = value(blocks + c / cols * bytes, c % cols);
    }
}

static float g4_half_at(const uint8_t *p) { return g4_f16_to_f32(g4_load_u16(p)); }

/* Of 32 columns: [16] bytes hold elements 0-15 in their low and 16-31 in their high nibbles, bit c of [4] bytes is the
 * fifth bit of element c. */
static int g4_nibble_at(const uint8_t *q, size_t c) { return c < 16 ? q[c] & 15 : q[c - 16] >> 4; }
static int g4_fifth_at(const uint8_t *high, size_t c) { return (high[c / 8] >> c % 8 & 1) << 4; }

static float g4_value_q4_1(const uint8_t *b, size_t c) /* { d, m, q[16] } */
{
    return g4_half_at(b) * (float)g4_nibble_at(b + 4, c) + g4_half_at(b + 2);
}

static float g4_value_q5_0(const uint8_t *b, size_t c) /* { d, high[4], q[16] } */
{
    return g4_half_at(b) * (float)((g4_nibble_at(b + 6, c) | g4_fifth_at(b + 2, c)) - 16);
}

static float g4_value_q5_1(const uint8_t *b, size_t c) /* { d, m, high[4], q[16] } */
{
    return g4_half_at(b) * (float)(g4_nibble_at(b + 8, c) | g4_fifth_at(b + 4, c)) + g4_half_at(b + 2);
}

/* q4_k and q5_k begin with { d, dmin, s[12] }. The 6 bits of scale and minimum of block j lie in bytes j and j + 4 of
 * s; those of the last four blocks have their low bits in byte j + 4 and their upper two above those of bytes j - 4 and
 * j. Of each 64 columns, the first 32 are the low nibbles of 32 bytes, the others the high ones. */
static float g4_value_k(const uint8_t *b, size_t c, int q)
{
    const uint8_t *s = b + 4;
    const size_t j = c / 32;
    const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    const int min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
    return g4_half_at(b) * (float)scale * (float)q - g4_half_at(b + 2) * (float)min;
}

static int g4_k_nibble(const uint8_t *q, size_t c)
{
    const uint8_t byte = q[c / 64 * 32 + c % 32];
    return c % 64 < 32 ? byte & 15 : byte >> 4;
}

static float g4_value_q4_k(const uint8_t *b, size_t c) { return g4_value_k(b, c, g4_k_nibble(b + 16, c)); }

static float g4_value_q5_k(const uint8_t *b, size_t c) /* bit j of high[32] belongs to block j; q[128] behind it */
{
    return g4_value_k(b, c, g4_k_nibble(b + 48, c) | (b[16 + c % 32] >> c / 32 & 1) << 4);
}

/* { low[128], high[64], int8 s[16], d }: each half of 128 columns has 64 and 32 bytes of them. Of its quarters, the low
 * nibbles of the 64 bytes are the first two, the high ones the others; quarter k has bits 2k and 2k + 1 of high. */
static float g4_value_q6_k(const uint8_t *b, size_t c)
{
    const size_t half = c / 128, k = c % 128 / 32, l = c % 32;
    const uint8_t low = b[64 * half + 32 * (k % 2) + l];
    const int q = (k < 2 ? low & 15 : low >> 4) | (b[128 + 32 * half + l] >> 2 * k & 3) << 4;
    return g4_half_at(b + 208) * (float)(int8_t)b[192 + c / 16] * (float)(q - 32);
}

static float g4_float_at(const uint8_t *p)
{
    float f;
    memcpy(&f, p, sizeof f);
    return f;
}

static float g4_value_q2_row(const uint8_t *b, size_t c) /* { float d, q[64] } */
{
    return g4_float_at(b) * (float)((b[4 + c / 4] >> 2 * (c % 4) & 3) - 2);
}

static float g4_value_q4_row(const uint8_t *b, size_t c) /* { float d, q[128] } */
{
    return g4_float_at(b) * (float)((b[4 + c / 2] >> 4 * (c % 2) & 15) - 8);
}

static float g4_value_q8_row(const uint8_t *b, size_t c) /* { float d; int8 q[256] } */
{
    return g4_float_at(b) * (float)(int8_t)b[4 + c];
}

/* Rows of a type whose blocks have COLS columns and BYTES bytes. */
#define G4_TABLE_ROW(NAME, COLS, BYTES)                                                                                \
    static void g4_table_row_##NAME(float *out, const g4_table *t, int row, int col, int n)                            \
    {                                                                                                                  \
        g4_table_blocks(out, t, row, col, n, COLS, BYTES, g4_value_##NAME);                                            \
    }
G4_TABLE_ROW(q4_1, 32, 20)
G4_TABLE_ROW(q5_0, 32, 22)
G4_TABLE_ROW(q5_1, 32, 24)
G4_TABLE_ROW(q4_k, 256, 144)
G4_TABLE_ROW(q5_k, 256, 176)
G4_TABLE_ROW(q6_k, 256, 210)
G4_TABLE_ROW(q2_row, 256, 68)
G4_TABLE_ROW(q4_row, 256, 132)
G4_TABLE_ROW(q8_row, 256, 260)

/* ---- Rows of matrices ----------------------------------------------------------------------------- */

static const uint8_t *g4_matrix_group(const g4_matrix *m, int row)
{
    return m->data + (size_t)(row / 16) * m->group_bytes;
}

static void g4_matrix_row_f32(float *out, const g4_matrix *m, int row)
{
    const uint8_t *values = g4_matrix_group(m, row) + sizeof *out * (size_t)(row % 16);
    for (size_t c = 0; c < (size_t)m->cols; c++) memcpy(&out[c], values + 16 * sizeof *out * c, sizeof *out);
}

static void g4_matrix_row_bf16(float *out, const g4_matrix *m, int row)
{
    const uint8_t *pairs = g4_matrix_group(m, row) + 4 * (size_t)(row % 16);
    for (size_t c = 0; c < (size_t)m->cols; c++)
        out[c] = g4_bf16_to_f32(g4_load_u16(pairs + 64 * (c / 2) + 2 * (c % 2)));
}

static void g4_matrix_row_bytes(float *out, const g4_matrix *m, int row)
{
    const uint8_t *group = g4_matrix_group(m, row);
    const size_t r = (size_t)(row % 16);
    for (size_t c = 0; c < (size_t)m->cols; c++) {
        const uint8_t *scales = g4_bytes_scales(group, c / 32, m->scale_type);
        const uint8_t *chunk = g4_bytes_weights(group, c / 32, m->scale_type) + c % 32 / 4 * 64;
        const float scale = m->scale_type == G4_SCALE_NONE ? g4_float_at(scales + 4 * r)
                                                           : g4_scale_value(g4_load_u16(scales + 2 * r), m->scale_type);
        out[c] = scale * (float)(int8_t)chunk[4 * r + c % 4];
    }
}

/* What a nibble and the planes of its block say of column c of 32, row r of 16. */
static int g4_nibbles_value(const g4_nibbles *shape, const uint8_t *step, size_t block, size_t r, size_t c)
{
    const size_t chunk = c / 4, at = 4 * r + c % 4;
    const uint8_t *high = step + shape->high;
    if (shape->low_bits == 0) return high[G4_PLANE * (2 * block + c / 16) + at] >> 2 * (chunk % 4) & 3;
    const uint8_t byte = step[(size_t)shape->weights + G4_NIBBLE_BLOCK * block + chunk / 2 * 64 + at];
    const int nibble = chunk % 2 ? byte >> 4 : byte & 15;
    if (shape->high_bits == 1) return nibble | (high[G4_PLANE * block + at] >> chunk & 1) << 4;
    if (shape->high_bits == 2) return nibble | (high[G4_PLANE * (2 * block + c / 16) + at] >> 2 * (chunk % 4) & 3) << 4;
    return nibble;
}

/* Types of nibbles: as parts.h writes each value. */
static void g4_matrix_row_nibbles(float *out, const g4_matrix *m, int row)
{
    const g4_nibbles *shape = &g4_nibbles_of[m->type];
    const size_t r = (size_t)(row % 16), step_cols = 32 * (size_t)shape->blocks;
    for (size_t c = 0; c < (size_t)m->cols; c++) {
        const uint8_t *step = g4_matrix_group(m, row) + c / step_cols * (size_t)shape->bytes;
        const size_t block = c % step_cols / 32;
        const int q = g4_nibbles_value(shape, step, block, r, c % 32);
        const uint8_t *d = step + 2 * r, *bytes = step + G4_STEP_SCALES + r;
        switch (shape->kind) {
        case G4_SCALES_ONE:
            out[c] = g4_scale_value(g4_load_u16(d + 32 * block), m->scale_type) * (float)(q - shape->middle);
            break;
        case G4_SCALES_MIN:
            out[c] = g4_half_at(d + 32 * block) * (float)q + g4_half_at(d + G4_STEP_SCALES + 32 * block);
            break;
        case G4_SCALES_K_MIN:
            out[c] = g4_half_at(d) * (float)bytes[32 * block] * (float)q -
                     g4_half_at(d + 32) * (float)bytes[32 * block + 16];
            break;
        case G4_SCALES_K_HALVES:
            out[c] = g4_half_at(d) * (float)(int8_t)bytes[16 * (c % step_cols / 16)] * (float)(q - shape->middle);
            break;
        case G4_SCALES_STEP: out[c] = g4_float_at(step + 4 * r) * (float)(q - shape->middle); break;
        }
    }
}

/* ---- The table -------------------------------------------------------------------------------------- */

#define G4_SCALES_NO (1u << G4_SCALE_NONE)
#define G4_SCALES_HALF (1u << G4_SCALE_F16)
#define G4_SCALES_ANY (1u << G4_SCALE_F16 | 1u << G4_SCALE_BF16)

static const g4_type_info g4_types[G4_N_TYPES] = {
    [G4_TYPE_F32] = { "f32", 64, 16 * 64 * 4, 64 * 4, G4_SCALES_NO, 1, G4_READS_FLOAT, g4_table_row_f32,
                      g4_matrix_row_f32 },
    [G4_TYPE_BF16] = { "bf16", 64, 16 * 64 * 2, 64 * 2, G4_SCALES_NO, 0, G4_READS_FLOAT, g4_table_row_bf16,
                       g4_matrix_row_bf16 },
    [G4_TYPE_Q8_0] = { "q8_0", 64, G4_Q8_STEP, 68, G4_SCALES_ANY, 0, G4_READS_INT8, g4_table_row_q8_0,
                       g4_matrix_row_bytes },
    [G4_TYPE_Q4_0] = { "q4_0", 64, 576, 36, G4_SCALES_ANY, 0, G4_READS_INT8, g4_table_row_q4_0, g4_matrix_row_nibbles },
    [G4_TYPE_Q4_1] = { "q4_1", 64, 640, 40, G4_SCALES_HALF, 0, G4_READS_INT8, g4_table_row_q4_1,
                       g4_matrix_row_nibbles },
    [G4_TYPE_Q5_0] = { "q5_0", 64, 704, 44, G4_SCALES_HALF, 0, G4_READS_INT8, g4_table_row_q5_0,
                       g4_matrix_row_nibbles },
    [G4_TYPE_Q5_1] = { "q5_1", 64, 768, 48, G4_SCALES_HALF, 0, G4_READS_INT8, g4_table_row_q5_1,
                       g4_matrix_row_nibbles },
    [G4_TYPE_Q4_K] = { "q4_k", 256, 2368, 144, G4_SCALES_HALF, 0, G4_READS_INT8, g4_table_row_q4_k,
                       g4_matrix_row_nibbles },
    [G4_TYPE_Q5_K] = { "q5_k", 256, 2880, 176, G4_SCALES_HALF, 0, G4_READS_INT8, g4_table_row_q5_k,
                       g4_matrix_row_nibbles },
    [G4_TYPE_Q6_K] = { "q6_k", 256, 3392, 210, G4_SCALES_HALF, 0, G4_READS_INT8, g4_table_row_q6_k,
                       g4_matrix_row_nibbles },
    [G4_TYPE_Q2_ROW] = { "q2_row", 256, 1088, 68, G4_SCALES_NO, 0, G4_READS_INT8, g4_table_row_q2_row,
                         g4_matrix_row_nibbles },
    [G4_TYPE_Q4_ROW] = { "q4_row", 256, 2112, 132, G4_SCALES_NO, 0, G4_READS_INT8, g4_table_row_q4_row,
                         g4_matrix_row_nibbles },
    [G4_TYPE_Q8_ROW] = { "q8_row", 256, G4_Q8_ROW_STEP, 260, G4_SCALES_NO, 0, G4_READS_INT8, g4_table_row_q8_row,
                         g4_matrix_row_bytes },
};

const g4_type_info *g4_type_get(uint32_t type) { return type < G4_N_TYPES ? &g4_types[type] : NULL; }

const char *g4_type_name(uint32_t type)
{
    const g4_type_info *info = g4_type_get(type);
    return info ? info->name : "?";
}

static uint64_t g4_steps(const g4_type_info *type, uint64_t cols)
{
    return (cols + type->step_cols - 1) / type->step_cols;
}

uint64_t g4_row_bytes(uint32_t type, uint64_t cols)
{
    return g4_steps(&g4_types[type], cols) * g4_types[type].row_bytes;
}

uint64_t g4_group_bytes(uint32_t type, uint64_t cols)
{
    return g4_steps(&g4_types[type], cols) * g4_types[type].step_bytes;
}

g4_matrix g4_matrix_at(const uint8_t *data, const g4_tensor_entry *t, uint64_t rows, uint64_t cols)
{
    g4_matrix m = { .data = data, .type = (g4_type)t->type, .scale_type = (g4_scale_type)t->scale_type };
    m.rows = (int)rows;
    m.cols = (int)cols;
    m.groups = (int)((rows + 15) / 16);
    m.steps = (int)g4_steps(&g4_types[t->type], cols);
    m.group_bytes = (size_t)g4_group_bytes(t->type, cols);
    return m;
}

void g4_table_row(float *out, const g4_table *t, int row, int col, int n)
{
    g4_types[t->type].table_row(out, t, row, col, n);
}

void g4_matrix_row(float *out, const g4_matrix *m, int row) { g4_types[m->type].matrix_row(out, m, row); }
