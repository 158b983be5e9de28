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

/* The scale of column c of a quantised row, which begins with one of 2 bytes for each 32 columns. */
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

/* The scale of row r of a group in the block that holds column c of a step. */
static float g4_step_scale(const g4_matrix *m, const uint8_t *step, size_t r, size_t c)
{
    return g4_scale_value(g4_load_u16(step + c % 64 / 32 * G4_BLOCK_SCALES + 2 * r), m->scale_type);
}

static void g4_matrix_row_q8_0(float *out, const g4_matrix *m, int row)
{
    const uint8_t *group = g4_matrix_group(m, row);
    const size_t r = (size_t)(row % 16);
    for (size_t c = 0; c < (size_t)m->cols; c++) {
        const uint8_t *step = group + c / 64 * G4_Q8_STEP, *chunk = step + G4_STEP_SCALES + c % 64 / 4 * 64;
        out[c] = g4_step_scale(m, step, r, c) * (float)(int8_t)chunk[4 * r + c % 4];
    }
}

static void g4_matrix_row_q4_0(float *out, const g4_matrix *m, int row)
{
    const uint8_t *group = g4_matrix_group(m, row);
    const size_t r = (size_t)(row % 16);
    for (size_t c = 0; c < (size_t)m->cols; c++) {
        const uint8_t *step = group + c / 64 * G4_Q4_STEP, *run = step + G4_STEP_SCALES + c % 64 / 8 * 64;
        const uint8_t byte = run[4 * r + c % 4];
        out[c] = g4_step_scale(m, step, r, c) * (float)((c / 4 % 2 ? byte >> 4 : byte & 15) - 8);
    }
}

/* ---- The table -------------------------------------------------------------------------------------- */

static const g4_type_info g4_types[G4_N_TYPES] = {
    [G4_TYPE_F32] = { .name = "f32",
                      .step_cols = 64,
                      .step_bytes = 16 * 64 * 4,
                      .is_float32 = 1,
                      .reads = G4_READS_FLOAT,
                      .table_row = g4_table_row_f32,
                      .matrix_row = g4_matrix_row_f32 },
    [G4_TYPE_BF16] = { .name = "bf16",
                       .step_cols = 64,
                       .step_bytes = 16 * 64 * 2,
                       .reads = G4_READS_FLOAT,
                       .table_row = g4_table_row_bf16,
                       .matrix_row = g4_matrix_row_bf16 },
    [G4_TYPE_Q8_0] = { .name = "q8_0",
                       .step_cols = 64,
                       .step_bytes = G4_Q8_STEP,
                       .has_scales = 1,
                       .reads = G4_READS_INT8,
                       .table_row = g4_table_row_q8_0,
                       .matrix_row = g4_matrix_row_q8_0 },
    [G4_TYPE_Q4_0] = { .name = "q4_0",
                       .step_cols = 64,
                       .step_bytes = G4_Q4_STEP,
                       .has_scales = 1,
                       .reads = G4_READS_INT8,
                       .table_row = g4_table_row_q4_0,
                       .matrix_row = g4_matrix_row_q4_0 },
};

const g4_type_info *g4_type_get(uint32_t type) { return type < G4_N_TYPES ? &g4_types[type] : NULL; }

const char *g4_type_name(uint32_t type)
{
    const g4_type_info *info = g4_type_get(type);
    return info ? info->name : "?";
}

uint64_t g4_row_bytes(uint32_t type, uint64_t cols)
{
    const g4_type_info *info = &g4_types[type];
    return (cols + info->step_cols - 1) / info->step_cols * (info->step_bytes / 16);
}

g4_matrix g4_matrix_at(const uint8_t *data, const g4_tensor_entry *t, uint64_t rows, uint64_t cols)
{
    const g4_type_info *info = &g4_types[t->type];
    g4_matrix m = { .data = data, .type = (g4_type)t->type, .scale_type = (g4_scale_type)t->scale_type };
    m.rows = (int)rows;
    m.cols = (int)cols;
    m.groups = (int)((rows + 15) / 16);
    m.steps = (int)((cols + info->step_cols - 1) / info->step_cols);
    m.group_bytes = (size_t)m.steps * info->step_bytes;
    return m;
}

void g4_table_row(float *out, const g4_table *t, int row, int col, int n)
{
    g4_types[t->type].table_row(out, t, row, col, n);
}

void g4_matrix_row(float *out, const g4_matrix *m, int row) { g4_types[m->type].matrix_row(out, m, row); }
