/* test_static.c - activations rounded by scales of their own (static.c): the parts of a row say the rounded row, or
 * with scale 0 the row itself; a product of them is that of the weights with it. In every table that this CPU can run.
 * A file without scales is not opened to be rounded by them. */
#include "engine/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "test.h"

enum { ROWS = 5, COLS = 300, OUT = 32 };

static uint64_t g4_seed = 7;
static float g4_randf(void)
{
    g4_seed = g4_seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(g4_seed >> 40) / 8388608.0f - 1.0f;
}

/* What the parts of a row add up to. */
static double g4_sum_of_parts(const g4_acts *parts, int n, int row, size_t c)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        const size_t at = (size_t)row * 64 * (size_t)parts[i].steps + c;
        sum += (double)parts[i].q[at] * (double)parts[i].d[at / 32];
    }
    return sum;
}

/* Row 0 has values beyond both ends, row 1 only zeros, row 2 none below -127. */
static void g4_fill(const g4_acts *x)
{
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++) {
            const float v = g4_randf();
            g4_acts_row(x, r)[c] = r == 1 ? 0.0f : r == 2 ? fabsf(v) : r == 0 && c % 7 == 0 ? -9.0f * v : v;
        }
    g4_acts_row(x, 0)[3] = -300.0f, g4_acts_row(x, 0)[4] = 300.0f;
}

static void g4_test_parts(const g4_kernels *k, const g4_acts *x, const g4_acts *parts, float scale)
{
    int bad = 0, most = 0;
    for (int r = 0; r < ROWS; r++) {
        const float *row = g4_acts_row(x, r);
        const int n = g4_static_parts(k, parts, r, row, scale);
        most = g4_max_int(most, n);
        for (size_t b = 0; b < x->x_stride / 32; b++) {
            float largest = 0;
            for (size_t c = 32 * b; c < 32 * b + 32; c++) largest = fmaxf(largest, fabsf(row[c]));
            for (size_t c = 32 * b; c < 32 * b + 32; c++) {
                float want = row[c];
                g4_static_round(&want, 1, scale);
                const double off = fabs(g4_sum_of_parts(parts, scale > 0 ? 2 : n, r, c) - (double)want);
                bad += !(off <= (double)(scale > 0 ? 128 * scale : largest) * 0x1p-23);
            }
        }
    }
    G4_EXPECT(bad == 0, "%s, scale %g: %d values of the parts differ", k->isa, (double)scale, bad);
    G4_EXPECT(scale > 0 ? most == 2 : most == G4_PARTS, "%s, scale %g: %d parts", k->isa, (double)scale, most);
}

/* A matrix of 8 bits, all of them -128 in its first row. */
static g4_matrix g4_some_matrix(g4_type type)
{
    const size_t bytes = (size_t)g4_group_bytes(type, COLS);
    uint8_t *data = g4_alloc(NULL, OUT / 16, bytes);
    if (!data) exit(2);
    const size_t step = g4_type_get(type)->step_bytes;
    for (size_t i = 0; i < OUT / 16 * bytes; i++) {
        const size_t in_step = i % step;
        const int random = (int)(g4_randf() * 128.0f);
        data[i] = (uint8_t)(in_step >= 64 && in_step / 4 % 16 == 0 && i < bytes ? 0x80 : random);
    }
    for (size_t s = 0; s < OUT / 16 * bytes / step; s++)
        for (size_t r = 0; r < 16; r++) {
            const float d = 0.01f + 0.001f * (float)r;
            memcpy(data + s * step + 4 * r, &d, sizeof d);
        }
    const g4_tensor_entry entry = { .type = type };
    return g4_matrix_at(data, &entry, OUT, COLS);
}

/* y[r][o], `stride` apart, = round(w . round(x)), within the rounding of float32 the nearest step of `out`. */
static void g4_expect_products(const char *what, const g4_kernels *k, const g4_matrix *w, const g4_acts *x,
                               const float *y, size_t stride)
{
    const float in = w->act[0], out = w->act[1];
    float row[COLS];
    int bad = 0;
    for (int o = 0; o < OUT; o++) {
        g4_matrix_row(row, w, o);
        for (int r = 0; r < ROWS; r++) {
            double want = 0, size = 0;
            for (int i = 0; i < COLS; i++) {
                float v = g4_acts_row(x, r)[i];
                g4_static_round(&v, 1, in);
                want += (double)v * (double)row[i];
                size += fabs((double)v * (double)row[i]);
            }
            const double got = (double)y[(size_t)r * stride + (size_t)o], step = (double)out;
            if (step > 0) want = fmin(fmax(want, -128 * step), 127 * step);
            bad += !(fabs(got - want) <= 0.51 * step + 1e-6 * size);
            bad += step > 0 && fabs(got / step - rint(got / step)) > 1e-4;
        }
    }
    G4_EXPECT(bad == 0, "%s, %s %s, scales %g and %g: %d products off", what, k->isa, g4_type_name(w->type), (double)in,
              (double)out, bad);
}

static void g4_test_product(const g4_kernels *k, g4_type type, const g4_acts *x, const g4_acts parts[G4_PARTS],
                            float in, float out)
{
    g4_compute c = { .kernels = k, .reads_ints = 1, .room_floats = G4_ROOM_FLOATS };
    g4_linear l = { .w = g4_some_matrix(type) };
    g4_linear_work work = { 0 };
    g4_blocks blocks = { 0 };
    const float act[2] = { in, out };
    float *y = g4_blocks_add(&blocks, ROWS, OUT, sizeof *y);
    c.pool = g4_pool_open(NULL, 1);
    c.room = g4_blocks_add(&blocks, 1, c.room_floats, sizeof *c.room);
    for (int i = 0; i < G4_PARTS; i++) c.parts[i] = parts[i];
    l.w.act = act;
    g4_linear_work_open(&work, &blocks, &c, COLS);
    const g4_view room = g4_tower_room(&blocks, OUT), inputs = { x->x, ROWS, COLS, x->x_stride };
    if (blocks.failed || !c.pool) exit(2);
    const g4_product p = { .w = &l.w, .y = y, .stride = OUT, .first = 0, .end = ROWS };
    g4_matmul(&c, &p, 1, x);
    g4_expect_products("product", k, &l.w, x, y, OUT);
    const g4_view z = g4_linear_apply(&work, &l, room, inputs);
    g4_expect_products("linear of a tower", k, &l.w, x, z.data, z.stride);
    g4_pool_close(c.pool);
    g4_blocks_free(&blocks);
    g4_free(NULL, (void *)(uintptr_t)l.w.data);
}

static void g4_test_file(void)
{
    g4_engine *e = NULL;
    g4_error err = { G4_OK, "" };
    const g4_engine_options opt = { .model_path = "tests/data/text_e2b.g4", .static_activations = 1 };
    const g4_status status = g4_engine_open(&e, &opt, &err);
    G4_EXPECT(status == G4_ERR_ARGUMENT && !e && strstr(err.message, "no tensor act"), "a file without scales: %d %s",
              (int)status, err.message);
}

int main(void)
{
    g4_blocks blocks = { 0 };
    g4_acts parts[G4_PARTS];
    const g4_acts x = g4_acts_open(&blocks, ROWS, COLS, 1);
    for (int i = 0; i < G4_PARTS; i++) parts[i] = g4_acts_open(&blocks, ROWS, COLS, 1);
    if (blocks.failed) return 2;
    const g4_kernels *k;
    for (int i = 0; (k = g4_usable_table(i)) != NULL; i++) {
        g4_fill(&x);
        for (int s = 0; s < 3; s++) g4_test_parts(k, &x, parts, s == 0 ? 0.0f : s == 1 ? 1.0f / 64 : 0.0123f);
        for (g4_type type = G4_TYPE_Q2_ROW; type < G4_N_TYPES; type++) {
            g4_test_product(k, type, &x, parts, 0.0123f, 0.0f);
            g4_test_product(k, type, &x, parts, 0.0f, 0.0f);
            g4_test_product(k, type, &x, parts, 0.0123f, 0.25f);
        }
    }
    g4_blocks_free(&blocks);
    g4_test_file();
    return g4_test_end();
}
