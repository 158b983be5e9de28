/* tower.c - what the vision and the audio tower share: tiles of tokens, and linears that clip what they read and
 * give. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "towers.h"

#include <float.h>

/* ---- Tiles of tokens ----------------------------------------------------------------------------- */

g4_view g4_tower_tile(float *all, size_t cols, int n, int piece)
{
    const int first = piece * G4_TOWER_TILE;
    return (g4_view) { all + (size_t)first * cols, (size_t)g4_min_int(n - first, G4_TOWER_TILE), cols, cols };
}

size_t g4_tower_stride(size_t cols)
{
    const size_t stride = g4_round_up(cols, 16);
    return stride % 512 == 0 ? stride + 16 : stride;
}

g4_view g4_tower_room(g4_blocks *b, size_t cols)
{
    const size_t stride = g4_tower_stride(cols);
    return (g4_view) { g4_blocks_add(b, G4_TOWER_TILE, stride, sizeof(float)), G4_TOWER_TILE, cols, stride };
}

static void g4_clamp_row(float *x, size_t n, float lo, float hi)
{
    for (size_t i = 0; i < n; i++) x[i] = g4_clamp(x[i], lo, hi);
}

void g4_view_clamp(g4_view x, float lo, float hi)
{
    for (size_t t = 0; t < x.n; t++) g4_clamp_row(g4_view_row(x, t), x.cols, lo, hi);
}

void g4_view_add(g4_view x, float scale, g4_view y)
{
    for (size_t t = 0; t < x.n; t++) {
        float *to = g4_view_row(x, t);
        const float *from = g4_view_row(y, t);
        for (size_t i = 0; i < x.cols; i++) to[i] += scale * from[i];
    }
}

g4_view g4_view_copy(g4_view y, g4_view x)
{
    for (size_t t = 0; t < x.n && y.data != x.data; t++)
        memcpy(g4_view_row(y, t), g4_view_row(x, t), x.cols * sizeof(float));
    return g4_view_as(y, x.n, x.cols);
}

g4_view g4_view_norm(const g4_kernels *kernels, g4_view y, g4_view x, const float *weight, float eps)
{
    for (size_t t = 0; t < x.n; t++) kernels->rmsnorm(g4_view_row(y, t), g4_view_row(x, t), weight, (int)x.cols, eps);
    return g4_view_as(y, x.n, x.cols);
}

/* ---- Taps ---------------------------------------------------------------------------------------- */

void g4_kept_open(g4_kept *kept, int n_kept, g4_blocks *b, const g4_taps *taps, int n)
{
    for (int i = 0; i < n_kept && taps; i++) {
        kept[i].n = n;
        kept[i].data = g4_blocks_add(b, (size_t)n, kept[i].cols, sizeof *kept[i].data);
    }
}

void g4_keep(const g4_kept *kept, int piece, g4_view x)
{
    if (kept->data) g4_view_copy(g4_tower_tile(kept->data, kept->cols, kept->n, piece), x);
}

void g4_tower_show(const g4_taps *taps, const g4_compute *c, const char *name, int layer, const float *x, int n,
                   size_t cols)
{
    g4_tap_send(
        taps, c,
        &(g4_tap) { .name = name, .layer = layer, .n_rows = n, .n_cols = (int)cols, .stride = cols, .values = x });
}

void g4_kept_show(const g4_kept *kept, int n_kept, const g4_taps *taps, const g4_compute *c, int layer)
{
    for (int i = 0; i < n_kept && taps; i++)
        g4_tower_show(taps, c, kept[i].name, layer, kept[i].data, kept[i].n, kept[i].cols);
}

/* ---- Clipped linears ----------------------------------------------------------------------------- */

g4_linear g4_bind_linear(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t rows, uint64_t cols)
{
    return (g4_linear) { g4_bind_matrix(b, prefix, layer, field, rows, cols), NULL };
}

g4_linear g4_bind_clipped(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t rows, uint64_t cols,
                          const float *bounds, const float *act, int index)
{
    g4_linear l = g4_bind_linear(b, prefix, layer, field, rows, cols);
    l.w.act = act ? act + 2 * index : NULL;
    if (!bounds) return l; /* the binder has failed */
    const float *own = bounds + 4 * index;
    if (own[0] > -FLT_MAX || own[1] < FLT_MAX || own[2] > -FLT_MAX || own[3] < FLT_MAX) l.bounds = own;
    return l;
}

/* How a linear reads its inputs. Here and in the next function stands all that towers ask of a weight type. */
static g4_reads g4_linear_reads(const g4_kernels *kernels, const g4_linear *l)
{
    return kernels->product16[l->w.type] && !l->w.act ? G4_READS_INT16 : g4_type_get(l->w.type)->reads;
}

int g4_linear_is_float32(const g4_linear *l) { return l->w.act || g4_type_get(l->w.type)->is_float32; }

/* Whether b finds what was read for a of the same x. */
static int g4_linear_reads_alike(const g4_kernels *kernels, const g4_linear *a, const g4_linear *b)
{
    if (a->w.cols != b->w.cols || g4_linear_reads(kernels, a) != g4_linear_reads(kernels, b)) return 0;
    if (!a->w.act != !b->w.act || (a->w.act && a->w.act[0] != b->w.act[0])) return 0;
    if (!a->bounds || !b->bounds) return !a->bounds && !b->bounds;
    return a->bounds[0] == b->bounds[0] && a->bounds[1] == b->bounds[1];
}

void g4_linear_work_open(g4_linear_work *work, g4_blocks *b, const g4_compute *compute, size_t max_cols)
{
    const size_t cols = g4_round_up(max_cols, G4_MAX_STEP_COLS);
    work->kernels = compute->kernels;
    work->x = g4_blocks_add(b, G4_TOWER_TILE, cols, sizeof *work->x);
    work->x16 = g4_blocks_add(b, G4_TOWER_TILE, cols, sizeof *work->x16);
    work->unit = g4_blocks_add(b, G4_TOWER_TILE, 1, sizeof *work->unit);
    work->q = g4_blocks_add(b, G4_TOWER_TILE, cols, sizeof *work->q);
    work->d = g4_blocks_add(b, G4_TOWER_TILE, cols / 32, sizeof *work->d);
    work->sum = g4_blocks_add(b, G4_TOWER_TILE, cols / 16, sizeof *work->sum);
    for (int i = 0; i < G4_PARTS && compute->parts[0].x; i++)
        work->parts[i] = g4_acts_open(b, G4_TOWER_TILE, (int)cols, 1);
}

/* Columns of a row that l reads. */
static size_t g4_linear_padded(const g4_linear *l) { return (size_t)l->w.steps * g4_type_get(l->w.type)->step_cols; }

/* The parts of what l reads, in its width. */
static void g4_linear_parts(g4_acts parts[G4_PARTS], const g4_linear_work *work, const g4_linear *l)
{
    for (int i = 0; i < G4_PARTS; i++) {
        parts[i] = work->parts[i];
        parts[i].x_stride = g4_linear_padded(l);
        parts[i].steps = (int)(parts[i].x_stride / 64);
    }
}

/* Row t, clamped and padded, as static activations are read (static.c). */
static void g4_linear_read_static(const g4_linear_work *work, const g4_linear *l, float *row, int t, g4_reads reads)
{
    g4_acts parts[G4_PARTS];
    g4_linear_parts(parts, work, l);
    if (reads == G4_READS_FLOAT)
        g4_static_round(row, g4_linear_padded(l), l->w.act[0]);
    else
        g4_static_parts(work->kernels, parts, t, row, l->w.act[0]);
}

/* y (n tokens) = round(w . the parts that were read); the second part's floats are room for products. */
static void g4_linear_product_static(const g4_linear_work *work, const g4_linear *l, g4_view y)
{
    const g4_gemm_fn gemm = work->kernels->gemm[l->w.type];
    g4_acts parts[G4_PARTS];
    g4_linear_parts(parts, work, l);
    const int n_parts = l->w.act[0] > 0 ? 2 : G4_PARTS, n = (int)y.n;
    const g4_view more = { parts[1].x, y.n, y.cols, g4_round_up(y.cols, 16) };
    gemm(y.data, y.stride, &l->w, &parts[0], 0, n, 0, l->w.groups);
    for (int i = 1; i < n_parts; i++) {
        gemm(more.data, more.stride, &l->w, &parts[i], 0, n, 0, l->w.groups);
        g4_view_add(y, 1.0f, more);
    }
}

/* What l reads of x: clamped, padded, as integers if that is how it reads. */
static void g4_linear_read(const g4_linear_work *work, const g4_linear *l, g4_view x)
{
    const g4_kernels *kernels = work->kernels;
    const size_t cols = (size_t)l->w.cols, padded = g4_linear_padded(l);
    const g4_reads reads = g4_linear_reads(kernels, l);
    for (size_t t = 0; t < x.n; t++) {
        float *row = work->x + (reads == G4_READS_FLOAT ? t * padded : 0); /* the others are done with it at once */
        memcpy(row, g4_view_row(x, t), cols * sizeof *row);
        memset(row + cols, 0, (padded - cols) * sizeof *row);
        if (l->bounds) g4_clamp_row(row, cols, l->bounds[0], l->bounds[1]);
        if (l->w.act)
            g4_linear_read_static(work, l, row, (int)t, reads);
        else if (reads == G4_READS_INT8)
            kernels->quantize(work->q + t * padded, work->d + t * padded / 32, work->sum + t * padded / 16, row,
                              (int)padded);
        if (reads == G4_READS_INT16) kernels->quantize16(work->x16 + t * padded, work->unit + t, row, (int)padded);
    }
}

/* y of the n tokens that were read. */
static g4_view g4_linear_product(const g4_linear_work *work, const g4_linear *l, g4_view room, size_t n)
{
    const g4_kernels *kernels = work->kernels;
    const g4_view y = g4_view_as(room, n, (size_t)l->w.rows);
    const float lo = l->bounds ? l->bounds[2] : -INFINITY, hi = l->bounds ? l->bounds[3] : INFINITY;
    if (g4_linear_reads(kernels, l) == G4_READS_INT16) {
        kernels->product16[l->w.type](y.data, y.stride, &l->w, work->x16, work->unit, (int)n, lo, hi);
        return y;
    }
    const size_t padded = g4_linear_padded(l);
    const g4_acts acts = { work->x, padded, work->q, work->d, work->sum, (int)(padded / 64) };
    if (l->w.act && g4_linear_reads(kernels, l) == G4_READS_INT8)
        g4_linear_product_static(work, l, y);
    else
        kernels->gemm[l->w.type](y.data, y.stride, &l->w, &acts, 0, (int)n, 0, l->w.groups);
    for (size_t t = 0; t < n && l->w.act; t++) g4_static_round(g4_view_row(y, t), y.cols, l->w.act[1]);
    if (l->bounds) g4_view_clamp(y, lo, hi);
    return y;
}

g4_view g4_linear_apply(const g4_linear_work *work, const g4_linear *l, g4_view y, g4_view x)
{
    g4_linear_read(work, l, x);
    return g4_linear_product(work, l, y, x.n);
}

g4_view g4_linear_apply_next(const g4_linear_work *work, const g4_linear *l, g4_view y, g4_view x,
                             const g4_linear *before)
{
    if (!g4_linear_reads_alike(work->kernels, before, l)) g4_linear_read(work, l, x);
    return g4_linear_product(work, l, y, x.n);
}
