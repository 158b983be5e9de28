/* patches.c - pictures to patches: Pillow's antialiased bicubic, bit for bit. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <math.h>

/* ---- Resize and patches -----------------------------------------------------------------------
 *
 * In: 8-bit RGB of any size. Out: the patches of the picture scaled to its token budget, as the reference's
 * image_processing_pil_gemma4.py makes them: get_aspect_ratio_preserving_size, Pillow's resize with BICUBIC, k / 255,
 * patches row by row. */

#define G4_RESIZE_BITS 22 /* fraction bits of a coefficient (Pillow, Resample.c: 32 - 8 - 2) */

/* The largest multiples of patch * pool whose area is at most budget tokens, keeping the aspect ratio. float64 in the
 * order of the reference: the floor depends on the last bit. */
static int g4_target_size(int width, int height, int budget, int side, int *target_w, int *target_h)
{
    if (width <= 0 || height <= 0) return 0;
    if (budget != 70 && budget != 140 && budget != 280 && budget != 560 && budget != 1120) return 0;
    double factor = sqrt((double)budget * side * side / ((double)height * width));
    int64_t h = (int64_t)floor(factor * height / side) * side;
    int64_t w = (int64_t)floor(factor * width / side) * side;
    int64_t longest = (int64_t)budget * side;
    if (h == 0) { /* both cannot be 0: the area holds 70 squares or more */
        h = side;
        w = (int64_t)floor((double)width / height) * side;
        if (w > longest) w = longest;
    } else if (w == 0) {
        w = side;
        h = (int64_t)floor((double)height / width) * side;
        if (h > longest) h = longest;
    }
    *target_w = (int)w;
    *target_h = (int)h;
    return (int)(w / side * (h / side));
}

G4_API int g4_image_tokens(int width, int height, int max_tokens, int *target_width, int *target_height)
{
    int w = 0, h = 0;
    int n = g4_target_size(width, height, max_tokens ? max_tokens : 280, 48, &w, &h);
    if (target_width) *target_width = w;
    if (target_height) *target_height = h;
    return n;
}

/* One direction of a resize: n_in samples become n_out. Output x reads inputs first .. first + n with weights w
 * (Pillow, precompute_coeffs). */
typedef struct {
    int n_in, n_out, max_taps;
    double scale, stretch, support;
} g4_axis;

static double g4_bicubic(double x) /* Keys' kernel, a = -0.5; the order of operations is Pillow's */
{
    const double a = -0.5;
    if (x < 0.0) x = -x;
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static g4_axis g4_axis_make(int n_in, int n_out)
{
    g4_axis r = { n_in, n_out, 0, 0, 0, 0 };
    r.scale = (double)(float)n_in / n_out; /* Pillow carries the source box as float32 */
    r.stretch = r.scale < 1.0 ? 1.0 : r.scale;
    r.support = 2.0 * r.stretch;
    r.max_taps = (int)ceil(r.support) * 2 + 1;
    return r;
}

/* Weights of output x as 22-bit fixed point in k; work has room for max_taps. Returns their number, *first the first
 * input. */
static int g4_axis_weights(const g4_axis *r, int x, double *work, int32_t *k, int *first)
{
    double center = (x + 0.5) * r->scale, sum = 0.0, inv = 1.0 / r->stretch;
    double from = center - r->support + 0.5, to = center + r->support + 0.5;
    int lo = from < 0 ? 0 : (int)from;
    int hi = to > r->n_in ? r->n_in : (int)to;
    for (int i = 0; i < hi - lo; i++) {
        work[i] = g4_bicubic((i + lo - center + 0.5) * inv);
        sum += work[i];
    }
    for (int i = 0; i < hi - lo; i++) {
        double w = sum != 0.0 ? work[i] / sum : work[i];
        k[i] = (int32_t)((w < 0 ? -0.5 : 0.5) + w * (1 << G4_RESIZE_BITS));
    }
    *first = lo;
    return hi - lo;
}

static uint8_t g4_resize_clip(int32_t sum)
{
    sum >>= G4_RESIZE_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* sum_i p[i] * k[i] with k = 2048 * hi + lo, exact. 16-bit factors let the compiler use its multiply-and-add of pairs
 * (pmaddwd), which every x86-64 has. n is a multiple of 8; blocks of 2048 keep the low half inside 32 bits
 * (2048 * 255 * 1024 < 2^31). */
static int32_t g4_resize_dot(const int16_t *p, const int16_t *hi, const int16_t *lo, int n)
{
    uint32_t total = 0;
    for (int i = 0; i < n; i += 2048) {
        int m = g4_min_int(n - i, 2048);
        int32_t h = 0, l = 0;
        for (int j = 0; j < m; j++) {
            h += (int32_t)p[i + j] * hi[i + j];
            l += (int32_t)p[i + j] * lo[i + j];
        }
        total += (uint32_t)h * 2048u + (uint32_t)l; /* the whole sum fits, its parts may wrap */
    }
    return (int32_t)total;
}

/* src (h, src_stride bytes) of n_in RGB pixels a row -> dst (h, n_out, 3). Coefficients are made for a block of outputs
 * at a time, so that their memory stays small for any width. */
static g4_status g4_resize_rows(const g4_allocator *a, const uint8_t *src, size_t src_stride, int h, int n_in,
                                uint8_t *dst, int n_out, g4_error *err)
{
    g4_status status = G4_ERR_MEMORY;
    g4_axis axis = g4_axis_make(n_in, n_out);
    int taps = (axis.max_taps + 7) & ~7;
    int block = g4_min_int(n_out, g4_max_int(1, (1 << 22) / taps));
    size_t plane = (size_t)n_in + (size_t)taps;
    double *work = g4_alloc(a, (size_t)axis.max_taps, sizeof *work);
    int32_t *k = g4_alloc(a, (size_t)axis.max_taps, sizeof *k);
    int16_t *hi = g4_alloc(a, (size_t)block * (size_t)taps, sizeof *hi); /* (block, taps), zero beyond the real ones */
    int16_t *lo = g4_alloc(a, (size_t)block * (size_t)taps, sizeof *lo);
    int *first = g4_alloc(a, (size_t)block, 2 * sizeof *first); /* (block, 2): first input, taps rounded up to 8 */
    int16_t *row = g4_alloc(a, plane, 3 * sizeof *row); /* (3, plane): one row, channel by channel, zero at the end */
    if (!work || !k || !hi || !lo || !first || !row) {
        g4_fail(err, G4_ERR_MEMORY, "resizing a picture of %d columns: out of memory", n_in);
        goto done;
    }
    for (int x0 = 0; x0 < n_out; x0 += block) {
        int nx = g4_min_int(block, n_out - x0);
        for (int x = 0; x < nx; x++) {
            int16_t *kh = hi + (size_t)x * (size_t)taps, *kl = lo + (size_t)x * (size_t)taps;
            int n = g4_axis_weights(&axis, x0 + x, work, k, &first[2 * x]), padded = (n + 7) & ~7;
            for (int i = 0; i < n; i++) {
                kh[i] = (int16_t)((k[i] + 1024) >> 11); /* k = 2048 kh + kl, -1024 <= kl < 1024 */
                kl[i] = (int16_t)(k[i] - kh[i] * 2048);
            }
            for (int i = n; i < padded; i++) kh[i] = kl[i] = 0;
            first[2 * x + 1] = padded;
        }
        for (int y = 0; y < h; y++) {
            const uint8_t *s = src + (size_t)y * src_stride;
            uint8_t *d = dst + ((size_t)y * (size_t)n_out + (size_t)x0) * 3;
            for (size_t i = 0; i < (size_t)n_in; i++) {
                row[i] = s[3 * i];
                row[plane + i] = s[3 * i + 1];
                row[2 * plane + i] = s[3 * i + 2];
            }
            for (int x = 0; x < nx; x++) {
                const int16_t *kh = hi + (size_t)x * (size_t)taps, *kl = lo + (size_t)x * (size_t)taps;
                for (size_t c = 0; c < 3; c++) {
                    int32_t sum = g4_resize_dot(row + c * plane + first[2 * x], kh, kl, first[2 * x + 1]);
                    d[3 * (size_t)x + c] = g4_resize_clip((1 << (G4_RESIZE_BITS - 1)) + sum);
                }
            }
        }
    }
    status = G4_OK;
done:
    g4_free(a, work);
    g4_free(a, k);
    g4_free(a, hi);
    g4_free(a, lo);
    g4_free(a, first);
    g4_free(a, row);
    return status;
}

/* src (h_in, src_stride bytes) -> dst (h_out, n), n bytes a row. Rows are summed as 32-bit integers:
 * |sum| < 255 * 1.6 * 2^22 < 2^31. */
static g4_status g4_resize_columns(const g4_allocator *a, const uint8_t *src, size_t src_stride, int h_in, size_t n,
                                   uint8_t *dst, int h_out, g4_error *err)
{
    g4_status status = G4_ERR_MEMORY;
    g4_axis axis = g4_axis_make(h_in, h_out);
    double *work = g4_alloc(a, (size_t)axis.max_taps, sizeof *work);
    int32_t *k = g4_alloc(a, (size_t)axis.max_taps, sizeof *k);
    int32_t *sum = g4_alloc(a, n, sizeof *sum);
    if (!work || !k || !sum) {
        g4_fail(err, G4_ERR_MEMORY, "resizing a picture of %d rows: out of memory", h_in);
        goto done;
    }
    for (int y = 0; y < h_out; y++) {
        int first, taps = g4_axis_weights(&axis, y, work, k, &first);
        for (size_t x = 0; x < n; x++) sum[x] = 1 << (G4_RESIZE_BITS - 1);
        for (int i = 0; i < taps; i++) {
            const uint8_t *s = src + (size_t)(first + i) * src_stride;
            int32_t w = k[i];
            for (size_t x = 0; x < n; x++) sum[x] += s[x] * w;
        }
        uint8_t *d = dst + (size_t)y * n;
        for (size_t x = 0; x < n; x++) d[x] = g4_resize_clip(sum[x]);
    }
    status = G4_OK;
done:
    g4_free(a, work);
    g4_free(a, k);
    g4_free(a, sum);
    return status;
}

/* One pass into memory of its own. vertical: columns, else rows. */
static g4_status g4_resize_pass(const g4_allocator *a, int vertical, const uint8_t *src, size_t stride, int w, int h,
                                int n_out, uint8_t **out, g4_error *err)
{
    size_t bytes;
    int too_big = g4_mul_overflows((size_t)(vertical ? w : h), (size_t)n_out * 3, &bytes);
    *out = too_big ? NULL : g4_alloc(a, bytes, 1);
    if (!*out) return g4_fail(err, G4_ERR_MEMORY, "resizing a picture of %d x %d: out of memory", w, h);
    g4_status s = vertical ? g4_resize_columns(a, src, stride, h, (size_t)w * 3, *out, n_out, err)
                           : g4_resize_rows(a, src, stride, h, w, *out, n_out, err);
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
static g4_status g4_resize(const g4_allocator *a, const g4_image *img, size_t stride, int w, int h, uint8_t **out,
                           g4_error *err)
{
    int64_t rows_lost = (int64_t)img->height - h, columns_lost = (int64_t)img->width - w;
    int vertical = rows_lost > 0 && rows_lost > 2 * columns_lost; /* of the present pass */
    int cw = img->width, ch = img->height;
    const uint8_t *src = img->pixels;
    g4_status s = G4_OK;
    *out = NULL;
    for (int pass = 0; !s && pass < 2; pass++, vertical = !vertical) {
        uint8_t *dst, *before = *out;
        if (vertical ? ch == h : cw == w) continue;
        s = g4_resize_pass(a, vertical, src, stride, cw, ch, vertical ? h : w, &dst, err);
        g4_free(a, before);
        *out = dst;
        src = dst;
        if (vertical)
            ch = h;
        else
            cw = w;
        stride = (size_t)cw * 3;
    }
    return s;
}

void g4_patches_free(const g4_allocator *a, g4_patches *p)
{
    if (!p) return;
    g4_free(a, p->pixels);
    g4_free(a, p->pos);
    memset(p, 0, sizeof *p);
}

g4_status g4_image_patches(const g4_allocator *a, const g4_image *img, int budget, int patch, int pool, g4_patches *out,
                           g4_error *err)
{
    memset(out, 0, sizeof *out);
    if (!img || !img->pixels || img->width <= 0 || img->height <= 0)
        return g4_fail(err, G4_ERR_ARGUMENT, "a picture needs pixels and a size above 0, got %d x %d",
                       img ? img->width : 0, img ? img->height : 0);
    size_t stride = img->stride ? img->stride : (size_t)img->width * 3;
    if (stride < (size_t)img->width * 3)
        return g4_fail(err, G4_ERR_ARGUMENT, "stride %zu is less than the %zu bytes of a row", stride,
                       (size_t)img->width * 3);
    if (patch <= 0 || patch > 256 || pool <= 0 || pool > 16)
        return g4_fail(err, G4_ERR_ARGUMENT, "patch %d, pool %d: expected 1..256 and 1..16", patch, pool);
    if (budget == 0) budget = img->max_tokens ? img->max_tokens : 280;
    int w, h, n_tokens = g4_target_size(img->width, img->height, budget, patch * pool, &w, &h);
    if (n_tokens == 0)
        return g4_fail(err, G4_ERR_ARGUMENT, "image tokens %d: expected 70, 140, 280, 560 or 1120", budget);

    uint8_t *scaled;
    g4_status s = g4_resize(a, img, stride, w, h, &scaled, err);
    if (s) return s;
    const uint8_t *src = scaled ? scaled : img->pixels;
    if (scaled) stride = (size_t)w * 3;

    g4_patches p = { n_tokens * pool * pool, w / patch, h / patch, n_tokens, NULL, NULL };
    size_t row = (size_t)patch * 3; /* floats in one row of a patch */
    p.pixels = g4_alloc(a, (size_t)p.n, row * (size_t)patch * sizeof *p.pixels);
    p.pos = g4_alloc(a, (size_t)p.n, 2 * sizeof *p.pos);
    if (!p.pixels || !p.pos) {
        g4_free(a, scaled);
        g4_patches_free(a, &p);
        return g4_fail(err, G4_ERR_MEMORY, "%d patches: out of memory", p.n);
    }
    float level[256]; /* rescale: float64, then rounded to float32 */
    for (int i = 0; i < 256; i++) level[i] = (float)(i / 255.0);
    for (int py = 0; py < p.grid_h; py++) {
        for (int px = 0; px < p.grid_w; px++) {
            size_t i = (size_t)py * (size_t)p.grid_w + (size_t)px;
            float *d = p.pixels + i * row * (size_t)patch;
            for (size_t r = 0; r < (size_t)patch; r++) {
                const uint8_t *line = src + ((size_t)py * (size_t)patch + r) * stride + (size_t)px * row;
                for (size_t c = 0; c < row; c++) d[r * row + c] = level[line[c]];
            }
            p.pos[2 * i] = px;
            p.pos[2 * i + 1] = py;
        }
    }
    g4_free(a, scaled);
    *out = p;
    return G4_OK;
}
