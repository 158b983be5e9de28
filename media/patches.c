/* patches.c - a picture of any size to the patches that the vision tower reads, as the reference's
 * image_processing_pil_gemma4.py makes them: the size of get_aspect_ratio_preserving_size, Pillow's resize with BICUBIC
 * bit for bit, k / 255, patches row by row. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <math.h>

/* ---- The size of a budget ------------------------------------------------------------------- */

#define G4_IMAGE_BUDGET 280 /* soft tokens of a picture when nobody says otherwise */

int g4_image_tokens(int width, int height, int max_tokens, int *target_width, int *target_height)
{
    int w = 0, h = 0;
    const int n = g4_target_size(width, height, max_tokens ? max_tokens : G4_IMAGE_BUDGET, G4_IMAGE_SIDE, &w, &h);
    if (target_width) *target_width = w;
    if (target_height) *target_height = h;
    return n;
}

/* ---- Filter weights of one direction -------------------------------------------------------- */

#define G4_RESIZE_BITS 22 /* fraction bits of a weight (Pillow, Resample.c: 32 - 8 - 2) */
#define G4_RESIZE_HALF (1 << (G4_RESIZE_BITS - 1))

/* One direction of a resize: n_in samples become n_out (Pillow, precompute_coeffs). */
typedef struct {
    int n_in, max_taps;
    double scale, stretch, support;
} g4_axis;

static g4_axis g4_axis_make(int n_in, int n_out)
{
    g4_axis axis = { .n_in = n_in };
    axis.scale = (double)(float)n_in / n_out; /* Pillow carries the source box as float32 */
    axis.stretch = axis.scale < 1.0 ? 1.0 : axis.scale;
    axis.support = 2.0 * axis.stretch;
    axis.max_taps = (int)ceil(axis.support) * 2 + 1;
    return axis;
}

static double g4_bicubic(double x) /* Keys' kernel, a = -0.5; the order of operations is Pillow's */
{
    const double a = -0.5;
    if (x < 0.0) x = -x;
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

/* Weights of output x in fixed point; both arrays have room for max_taps, work is scratch. Returns their number, and in
 * *first the input that the first belongs to. */
static int g4_axis_weights(const g4_axis *axis, int x, double *work, int32_t *weight, int *first)
{
    const double center = (x + 0.5) * axis->scale, inverse = 1.0 / axis->stretch;
    const double from = center - axis->support + 0.5, to = center + axis->support + 0.5;
    const int begin = from < 0 ? 0 : (int)from, end = to > axis->n_in ? axis->n_in : (int)to;
    double sum = 0.0;
    for (int i = 0; i < end - begin; i++) {
        work[i] = g4_bicubic((i + begin - center + 0.5) * inverse);
        sum += work[i];
    }
    for (int i = 0; i < end - begin; i++) {
        const double w = sum != 0.0 ? work[i] / sum : work[i];
        weight[i] = (int32_t)((w < 0 ? -0.5 : 0.5) + w * (1 << G4_RESIZE_BITS));
    }
    *first = begin;
    return end - begin;
}

/* ---- Resizing rows -------------------------------------------------------------------------- */

#define G4_RESIZE_LANES 8         /* taps are padded with zeros to a multiple, for vectors */
#define G4_RESIZE_BLOCK (1 << 22) /* taps that are made at a time */

static int g4_pad_taps(int n) { return (int)g4_round_up((size_t)n, G4_RESIZE_LANES); }

/* The weights of a block of outputs, split as w = 2048 high + low with -1024 <= low < 1024: 16-bit factors let the
 * compiler use the multiply-and-add of pairs (pmaddwd) that every x86-64 has. */
typedef struct {
    g4_axis axis;
    int taps, size;  /* taps: room for each output; size: outputs in a block, so that any width takes little memory */
    double *work;    /* (max_taps) */
    int32_t *weight; /* (max_taps) */
    int16_t *high, *low; /* (size, taps), zero beyond the real ones */
    int *first, *n;      /* (size): the first input, the taps from there, padded */
} g4_row_weights;

static void g4_row_weights_free(const g4_allocator *a, g4_row_weights *k)
{
    g4_free(a, k->work);
    g4_free(a, k->weight);
    g4_free(a, k->high);
    g4_free(a, k->low);
    g4_free(a, k->first);
    g4_free(a, k->n);
}

/* Nonzero: out of memory. */
static int g4_row_weights_open(const g4_allocator *a, int n_in, int n_out, g4_row_weights *k)
{
    memset(k, 0, sizeof *k);
    k->axis = g4_axis_make(n_in, n_out);
    k->taps = g4_pad_taps(k->axis.max_taps);
    k->size = g4_min_int(n_out, g4_max_int(1, G4_RESIZE_BLOCK / k->taps));
    const size_t n_taps = (size_t)k->size * (size_t)k->taps;
    k->work = g4_alloc(a, (size_t)k->axis.max_taps, sizeof *k->work);
    k->weight = g4_alloc(a, (size_t)k->axis.max_taps, sizeof *k->weight);
    k->high = g4_alloc(a, n_taps, sizeof *k->high);
    k->low = g4_alloc(a, n_taps, sizeof *k->low);
    k->first = g4_alloc(a, (size_t)k->size, sizeof *k->first);
    k->n = g4_alloc(a, (size_t)k->size, sizeof *k->n);
    return !k->work || !k->weight || !k->high || !k->low || !k->first || !k->n;
}

/* The weights of n outputs from x0 on. Nonzero: halted. */
static int g4_row_weights_make(g4_row_weights *k, int x0, int n, g4_pace *pace)
{
    for (int x = 0; x < n; x++) {
        int16_t *high = k->high + (size_t)x * (size_t)k->taps, *low = k->low + (size_t)x * (size_t)k->taps;
        const int taps = g4_axis_weights(&k->axis, x0 + x, k->work, k->weight, &k->first[x]);
        k->n[x] = g4_pad_taps(taps);
        for (int i = 0; i < taps; i++) {
            high[i] = (int16_t)((k->weight[i] + 1024) >> 11);
            low[i] = (int16_t)(k->weight[i] - high[i] * 2048);
        }
        for (int i = taps; i < k->n[x]; i++) high[i] = low[i] = 0;
        if (g4_pace_ends(pace, 8 * (size_t)taps)) return 1;
    }
    return 0;
}

/* sum_i p[i] * (2048 high[i] + low[i]), exact. n is a multiple of 8; blocks of 2048 keep the low half inside 32 bits
 * (2048 * 255 * 1024 < 2^31). */
static int32_t g4_resize_dot(const int16_t *p, const int16_t *high, const int16_t *low, int n)
{
    uint32_t total = 0;
    while (n > 0) {
        const int block = g4_min_int(n, 2048);
        int32_t h = 0, l = 0;
        for (int i = 0; i < block; i++) {
            h += (int32_t)p[i] * high[i];
            l += (int32_t)p[i] * low[i];
        }
        total += (uint32_t)h * 2048u + (uint32_t)l; /* the whole sum fits, its parts may wrap */
        p += block;
        high += block;
        low += block;
        n -= block;
    }
    return (int32_t)total;
}

/* A row of n RGB pixels to planes (3, plane), channel by channel. Nonzero: halted. */
static int g4_split_row(const uint8_t *row, size_t n, int16_t *planes, size_t plane, g4_pace *pace)
{
    for (size_t from = 0; from < n;) {
        const size_t end = from + g4_piece(n - from);
        if (g4_pace_ends(pace, end - from)) return 1;
        for (size_t i = from; i < end; i++) {
            planes[i] = row[3 * i];
            planes[plane + i] = row[3 * i + 1];
            planes[2 * plane + i] = row[3 * i + 2];
        }
        from = end;
    }
    return 0;
}

/* The first n outputs of the block for one row, whose planes are zero behind its end. Nonzero: halted. */
static int g4_resize_row(const g4_row_weights *k, const int16_t *planes, size_t plane, int n, uint8_t *dst,
                         g4_pace *pace)
{
    const size_t taps = (size_t)k->taps;
    for (size_t x = 0; x < (size_t)n; x++) {
        const int16_t *high = k->high + x * taps, *low = k->low + x * taps, *p = planes + k->first[x];
        const int n_taps = k->n[x];
        for (size_t c = 0; c < 3; c++) {
            const int32_t sum = g4_resize_dot(p + c * plane, high, low, n_taps);
            dst[3 * x + c] = g4_clamp_u8((G4_RESIZE_HALF + sum) >> G4_RESIZE_BITS);
        }
        if (g4_pace_ends(pace, (size_t)n_taps)) return 1;
    }
    return 0;
}

/* src (h, stride bytes) of w RGB pixels a row -> dst (h, n_out, 3). */
static g4_status g4_resize_rows(const g4_allocator *a, const uint8_t *src, size_t stride, int w, int h, uint8_t *dst,
                                int n_out, g4_halt *halt, g4_error *err)
{
    g4_row_weights k;
    const int no_weights = g4_row_weights_open(a, w, n_out, &k);
    const size_t plane = (size_t)w + (size_t)k.taps;
    int16_t *planes = g4_alloc(a, plane, 3 * sizeof *planes);
    g4_status s = G4_OK;
    if (no_weights || !planes) s = g4_fail(err, G4_ERR_MEMORY, "resizing a picture of %d columns: out of memory", w);
    g4_pace pace = { halt, 0 };
    for (int x0 = 0; !s && x0 < n_out; x0 += k.size) {
        const int n = g4_min_int(k.size, n_out - x0);
        int ends = g4_row_weights_make(&k, x0, n, &pace);
        for (int y = 0; y < h && !ends; y++) {
            uint8_t *row = dst + ((size_t)y * (size_t)n_out + (size_t)x0) * 3;
            ends = g4_split_row(src + (size_t)y * stride, (size_t)w, planes, plane, &pace) ||
                   g4_resize_row(&k, planes, plane, n, row, &pace);
        }
        if (ends) s = g4_halt_check(halt, err);
    }
    g4_row_weights_free(a, &k);
    g4_free(a, planes);
    return s;
}

/* ---- Resizing columns, and both ------------------------------------------------------------- */

/* dst[x] = sum_i src[i][x] weight[i] for n neighbours x of taps rows. Nonzero: halted. */
static int g4_resize_column_piece(const uint8_t *src, size_t stride, size_t n, const int32_t *weight, int taps,
                                  int32_t *sum, uint8_t *dst, g4_pace *pace)
{
    for (size_t x = 0; x < n; x++) sum[x] = G4_RESIZE_HALF;
    for (int i = 0; i < taps; i++) {
        const uint8_t *row = src + (size_t)i * stride;
        const int32_t factor = weight[i];
        for (size_t x = 0; x < n; x++) sum[x] += row[x] * factor;
        if (g4_pace_ends(pace, n / 4)) return 1;
    }
    for (size_t x = 0; x < n; x++) dst[x] = g4_clamp_u8(sum[x] >> G4_RESIZE_BITS);
    return 0;
}

/* src (h, stride bytes) of w RGB pixels a row -> dst (n_out, w, 3). Rows are summed as 32-bit integers, a piece of them
 * at a time: |sum| < 255 * 1.6 * 2^22 < 2^31. */
static g4_status g4_resize_columns(const g4_allocator *a, const uint8_t *src, size_t stride, int w, int h, uint8_t *dst,
                                   int n_out, g4_halt *halt, g4_error *err)
{
    const g4_axis axis = g4_axis_make(h, n_out);
    const size_t n = (size_t)w * 3;
    double *work = g4_alloc(a, (size_t)axis.max_taps, sizeof *work);
    int32_t *weight = g4_alloc(a, (size_t)axis.max_taps, sizeof *weight);
    int32_t *sum = g4_alloc(a, g4_piece(n), sizeof *sum);
    g4_status s = G4_OK;
    if (!work || !weight || !sum) s = g4_fail(err, G4_ERR_MEMORY, "resizing a picture of %d rows: out of memory", h);
    g4_pace pace = { halt, 0 };
    for (int y = 0; !s && y < n_out; y++) {
        int first;
        const int taps = g4_axis_weights(&axis, y, work, weight, &first);
        int ends = g4_pace_ends(&pace, 8 * (size_t)taps);
        const uint8_t *rows = src + (size_t)first * stride;
        for (size_t x = 0; x < n && !ends; x += G4_PACE)
            ends = g4_resize_column_piece(rows + x, stride, g4_piece(n - x), weight, taps, sum, dst + (size_t)y * n + x,
                                          &pace);
        if (ends) s = g4_halt_check(halt, err);
    }
    g4_free(a, work);
    g4_free(a, weight);
    g4_free(a, sum);
    return s;
}

/* One pass over src (h, stride bytes) of w pixels a row into memory of its own, along columns when it is vertical. */
static g4_status g4_resize_pass(const g4_allocator *a, int vertical, const uint8_t *src, size_t stride, int w, int h,
                                int n_out, uint8_t **out, g4_halt *halt, g4_error *err)
{
    g4_status (*const resize)(const g4_allocator *, const uint8_t *, size_t, int, int, uint8_t *, int, g4_halt *,
                              g4_error *) = vertical ? g4_resize_columns : g4_resize_rows;
    size_t bytes;
    const int too_big = g4_mul_overflows((size_t)(vertical ? w : h), (size_t)n_out * 3, &bytes);
    *out = too_big ? NULL : g4_alloc(a, bytes, 1);
    if (!*out) return g4_fail(err, G4_ERR_MEMORY, "resizing a picture of %d x %d: out of memory", w, h);
    const g4_status s = resize(a, src, stride, w, h, *out, n_out, halt, err);
    if (s) {
        g4_free(a, *out);
        *out = NULL;
    }
    return s;
}

/* *out = img scaled to (h, w, 3) when that changes anything: one pass, rounding to 8 bits, the other pass; a direction
 * that keeps its size is skipped. *out is NULL when both do. The order is that of Pillow 13.0 (Resample.c,
 * horizontal_first): horizontal first, but for pictures that lose more than twice as many rows as columns. Pillow up to
 * 12 always began horizontally. */
static g4_status g4_resize(const g4_allocator *a, const g4_image *img, int w, int h, uint8_t **out, g4_halt *halt,
                           g4_error *err)
{
    const int64_t rows_lost = (int64_t)img->height - h, columns_lost = (int64_t)img->width - w;
    int vertical = rows_lost > 0 && rows_lost > 2 * columns_lost; /* of the present pass */
    int src_w = img->width, src_h = img->height;
    const uint8_t *src = img->pixels;
    size_t stride = g4_image_stride(img);
    g4_status s = G4_OK;
    *out = NULL;
    for (int pass = 0; !s && pass < 2; pass++, vertical = !vertical) {
        if (vertical ? src_h == h : src_w == w) continue;
        uint8_t *dst, *before = *out;
        s = g4_resize_pass(a, vertical, src, stride, src_w, src_h, vertical ? h : w, &dst, halt, err);
        g4_free(a, before);
        *out = dst;
        src = dst;
        if (vertical)
            src_h = h;
        else
            src_w = w;
        stride = (size_t)src_w * 3;
    }
    return s;
}

g4_status g4_pixels_resize(const g4_media_limits *m, g4_pixels *p, int w, int h, g4_error *err)
{
    const g4_image image = { .pixels = p->rgb, .width = p->w, .height = p->h };
    uint8_t *scaled = NULL;
    const g4_status s = g4_resize(m->a, &image, w, h, &scaled, m->halt, err);
    if (s || !scaled) {
        g4_free(m->a, scaled);
        return s;
    }
    g4_free(m->a, p->rgb);
    *p = (g4_pixels) { scaled, w, h };
    return G4_OK;
}

/* ---- Patches -------------------------------------------------------------------------------- */

void g4_patches_free(const g4_allocator *a, g4_patches *p)
{
    if (!p) return;
    g4_free(a, p->pixels);
    g4_free(a, p->pos);
    memset(p, 0, sizeof *p);
}

/* Soft tokens of a frame that was scaled for this budget when it was loaded; 0: it was not. Asking for its size again
 * would not always give the same: a long one may still grow. */
static int g4_fitted_tokens(const g4_image *img, int budget, int side)
{
    if (img->fitted != budget || img->width % side != 0 || img->height % side != 0) return 0;
    const int64_t n = (int64_t)(img->width / side) * (img->height / side);
    return n <= budget ? (int)n : 0;
}

/* The size for img's budget and its soft tokens, after a check of all arguments. */
static g4_status g4_patches_plan(const g4_image *img, int budget, int patch, int pool, int *w, int *h, int *n_tokens,
                                 g4_error *err)
{
    const g4_status s = g4_image_check(img, err);
    if (s) return s;
    if (patch <= 0 || patch > 256 || pool <= 0 || pool > 16)
        return g4_fail(err, G4_ERR_ARGUMENT, "patch %d, pool %d: expected 1..256 and 1..16", patch, pool);
    if (budget == 0) budget = img->max_tokens ? img->max_tokens : G4_IMAGE_BUDGET;
    *w = img->width;
    *h = img->height;
    *n_tokens = g4_fitted_tokens(img, budget, patch * pool);
    if (*n_tokens == 0) *n_tokens = g4_target_size(img->width, img->height, budget, patch * pool, w, h);
    if (*n_tokens == 0)
        return g4_fail(err, G4_ERR_ARGUMENT, "image tokens %d: expected 70, 140, 280, 560 or 1120", budget);
    return G4_OK;
}

/* Cut src (stride bytes a row) into the patches of p, whose grid is set. Nonzero: halted. */
static int g4_patches_cut(const g4_patches *p, int patch, const uint8_t *src, size_t stride, g4_halt *halt)
{
    g4_pace pace = { halt, 0 };
    const size_t side = (size_t)patch, row = side * 3; /* floats in one row of a patch */
    float level[256];                                  /* rescale: float64, then rounded to float32 */
    for (int i = 0; i < 256; i++) level[i] = (float)(i / 255.0);
    for (int py = 0; py < p->grid_h; py++) {
        for (int px = 0; px < p->grid_w; px++) {
            const size_t i = (size_t)py * (size_t)p->grid_w + (size_t)px;
            float *dst = p->pixels + i * row * side;
            for (size_t r = 0; r < side; r++) {
                const uint8_t *line = src + ((size_t)py * side + r) * stride + (size_t)px * row;
                for (size_t c = 0; c < row; c++) dst[r * row + c] = level[line[c]];
            }
            p->pos[2 * i] = px;
            p->pos[2 * i + 1] = py;
            if (g4_pace_ends(&pace, row * side)) return 1;
        }
    }
    return 0;
}

g4_status g4_image_patches(const g4_allocator *a, const g4_image *img, int budget, int patch, int pool, g4_halt *halt,
                           g4_patches *out, g4_error *err)
{
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    memset(out, 0, sizeof *out);
    int w = 0, h = 0, n_tokens = 0;
    g4_status s = g4_patches_plan(img, budget, patch, pool, &w, &h, &n_tokens, err);
    if (s) return s;
    uint8_t *scaled = NULL;
    s = g4_resize(a, img, w, h, &scaled, halt, err);
    if (s) {
        g4_free(a, scaled);
        return s;
    }
    g4_patches p = { .n = n_tokens * pool * pool, .grid_w = w / patch, .grid_h = h / patch, .n_tokens = n_tokens };
    p.pixels = g4_alloc(a, (size_t)p.n, (size_t)patch * (size_t)patch * 3 * sizeof *p.pixels);
    p.pos = g4_alloc(a, (size_t)p.n, 2 * sizeof *p.pos);
    const uint8_t *src = scaled ? scaled : img->pixels;
    if (!p.pixels || !p.pos)
        s = g4_fail(err, G4_ERR_MEMORY, "%d patches: out of memory", p.n);
    else if (g4_patches_cut(&p, patch, src, scaled ? (size_t)w * 3 : g4_image_stride(img), halt))
        s = g4_halt_check(halt, err);
    g4_free(a, scaled);
    if (s)
        g4_patches_free(a, &p);
    else
        *out = p;
    return s;
}

g4_status g4_patches_make(g4_patches *out, const g4_image *image, const g4_media_options *opt, g4_error *err)
{
    g4_media_limits m;
    g4_halt halt;
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    memset(out, 0, sizeof *out);
    const g4_status s = g4_media_begin(&m, &halt, opt, err);
    return s ? s : g4_image_patches(m.a, image, 0, G4_IMAGE_PATCH, G4_IMAGE_POOL, &halt, out, err);
}

void g4_patches_close(g4_patches *p, const g4_media_options *opt) { g4_patches_free(opt ? opt->allocator : NULL, p); }
