/* types.c - the table of weight types. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "parts.h"

const char *g4_type_name(uint32_t type)
{
    static const char *const names[G4_N_TYPES] = { "f32", "bf16", "q8_0", "q4_0" };
    return type < G4_N_TYPES ? names[type] : "?";
}

/* Bytes of one row of `cols` values (a multiple of 64) in the rows layout; of one value column group in groups16,
 * times 16. */
uint64_t g4_row_bytes(uint32_t type, uint64_t cols)
{
    switch (type) {
    case G4_TYPE_F32: return 4 * cols;
    case G4_TYPE_BF16: return 2 * cols;
    case G4_TYPE_Q8_0: return cols / 32 * 2 + cols;
    default: return cols / 32 * 2 + cols / 2;
    }
}

g4_matrix g4_matrix_at(const uint8_t *data, const g4_tensor_entry *t, uint64_t rows, uint64_t cols)
{
    g4_matrix m = { data, (g4_type)t->type, (g4_scale_type)t->scale_type, (int)rows, (int)cols, 0, 0, 0 };
    m.groups = (int)((rows + 15) / 16);
    m.steps = (int)((cols + 63) / 64);
    m.group_bytes = (size_t)(16 * g4_row_bytes(t->type, (uint64_t)m.steps * 64));
    return m;
}

/* Values [c0, c0 + n) of one row of a table as float32. */
void g4_table_row(float *out, const g4_table *t, int row, int c0, int n)
{
    const uint8_t *p = t->data + (size_t)row * t->row_bytes;
    const size_t cols = g4_round_up((size_t)t->cols, 64);
    for (int i = 0; i < n; i++) {
        const size_t c = (size_t)c0 + (size_t)i;
        const uint8_t *values = p + cols / 32 * 2; /* after the scales of quantised rows */
        switch (t->type) {
        case G4_TYPE_F32: memcpy(&out[i], p + 4 * c, 4); break;
        case G4_TYPE_BF16: out[i] = g4_bf16_to_f32(g4_load_u16(p + 2 * c)); break;
        case G4_TYPE_Q8_0:
            out[i] = g4_scale_value(g4_load_u16(p + c / 32 * 2), t->scale_type) * (float)(int8_t)values[c];
            break;
        default: {
            const uint8_t byte = values[c / 32 * 16 + c % 16];
            out[i] = g4_scale_value(g4_load_u16(p + c / 32 * 2), t->scale_type) *
                     (float)((c % 32 < 16 ? byte & 15 : byte >> 4) - 8);
        }
        }
    }
}

/* One row of a multiplied matrix: a tied embedding is looked up inside its group of 16. */
void g4_matrix_row(float *out, const g4_matrix *m, int row)
{
    const uint8_t *group = m->data + (size_t)(row / 16) * m->group_bytes;
    const int r = row % 16;
    for (int c = 0; c < m->cols; c++) {
        const int in_step = c % 64, chunk = in_step / 4, at = r * 4 + c % 4;
        switch (m->type) {
        case G4_TYPE_F32: memcpy(&out[c], group + 4 * ((size_t)c * 16 + (size_t)r), 4); break;
        case G4_TYPE_BF16:
            out[c] = g4_bf16_to_f32(g4_load_u16(group + 2 * ((size_t)(c / 2) * 32 + (size_t)(2 * r + c % 2))));
            break;
        case G4_TYPE_Q8_0: {
            const uint8_t *step = group + (size_t)(c / 64) * 1088;
            const float scale = g4_scale_value(g4_load_u16(step + (in_step / 32 * 16 + r) * 2), m->scale_type);
            out[c] = scale * (float)(int8_t)step[64 + 64 * chunk + at];
            break;
        }
        default: {
            const uint8_t *step = group + (size_t)(c / 64) * 576;
            const float scale = g4_scale_value(g4_load_u16(step + (in_step / 32 * 16 + r) * 2), m->scale_type);
            const uint8_t byte = step[64 + 64 * (chunk / 2) + at];
            out[c] = scale * (float)((chunk % 2 ? byte >> 4 : byte & 15) - 8);
        }
        }
    }
}
