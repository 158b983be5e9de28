/* media.c - files to pixels, samples and frames; pixels to patches; pixels to PNG.
 *
 *  1  Names, limits, sources of bytes
 *  2  Resize and patches      Pillow's antialiased bicubic, bit for bit
 *  3  Inflate                 RFC 1950, 1951
 *  4  PNG                     every colour type, depth, interlace and tRNS
 *  5  JPEG                    baseline and progressive; libjpeg's integer IDCT and fancy upsampling, bit for bit
 *  6  PPM, PGM, PBM, PAM
 *  7  WAV and resampling
 *  8  y4m
 *  9  The ffmpeg program      everything else
 * 10  Loading                 chooses a reader by the first bytes
 * 11  Writing PNG, drawing boxes
 *
 * Everything that comes out of a file is untrusted: sizes are checked against the limits before memory is taken, and a
 * file that is truncated or at odds with itself gives G4_ERR_FORMAT with a message that says what was expected and what
 * was found. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media/media.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- 1. Names, limits, sources of bytes ----------------------------------------------------------- */

/* The options of a call with every default filled in. */
typedef struct {
    const g4_allocator *a;
    const char *ffmpeg;
    uint64_t max_pixels, max_samples, max_file_bytes;
    int max_frames, n_frames, want_sound;
    double fps;
} g4_media;

static g4_media g4_media_resolve(const g4_media_options *opt)
{
    static const g4_media_options none;
    if (!opt) opt = &none;
    g4_media m = { opt->allocator,
                   opt->ffmpeg ? opt->ffmpeg : "ffmpeg",
                   opt->max_pixels ? opt->max_pixels : (uint64_t)64 << 20,
                   opt->max_samples ? opt->max_samples : UINT64_C(230400000),
                   opt->max_file_bytes ? opt->max_file_bytes : (uint64_t)4 << 30,
                   opt->max_frames ? opt->max_frames : 1024,
                   opt->n_frames ? opt->n_frames : 32,
                   opt->want_sound,
                   opt->fps };
    return m;
}

/* Memory for (h, w, 3) pixels, after the check of the limit. */
static g4_status g4_pixels_alloc(const g4_media *m, const char *kind, uint64_t w, uint64_t h, uint8_t **out,
                                 g4_error *err)
{
    *out = NULL;
    if (w == 0 || h == 0 || w > INT32_MAX || h > INT32_MAX)
        return g4_fail(err, G4_ERR_FORMAT, "%s: size %" PRIu64 " x %" PRIu64 ", expected 1..2147483647 each way", kind,
                       w, h);
    if (w * h > m->max_pixels)
        return g4_fail(err, G4_ERR_UNSUPPORTED,
                       "%s: %" PRIu64 " x %" PRIu64 " pixels are more than the limit of %" PRIu64, kind, w, h,
                       m->max_pixels);
    *out = w * h > SIZE_MAX / 3 ? NULL : g4_alloc(m->a, (size_t)(w * h), 3);
    return *out ? G4_OK
                : g4_fail(err, G4_ERR_MEMORY, "%s: %" PRIu64 " x %" PRIu64 " pixels: out of memory", kind, w, h);
}

static uint32_t g4_be16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static uint32_t g4_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static uint32_t g4_le16(const uint8_t *p) { return (uint32_t)p[1] << 8 | p[0]; }
static uint32_t g4_le32(const uint8_t *p)
{
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

/* v with coverage a over white, rounded as Pillow's alpha_composite does (AlphaComposite.c, 7 extra bits). */
static uint8_t g4_over_white(uint32_t v, uint32_t a)
{
    uint32_t t = (v * a + 255 * (255 - a) + 0x80) << 7;
    return (uint8_t)((((t >> 8) + t) >> 8) >> 7);
}

/* Orientation (1..8) in a TIFF block, as EXIF holds it; 1 when there is none or it makes no sense. */
static int g4_exif_orientation(const uint8_t *p, size_t n)
{
    if (n < 8) return 1;
    int big = p[0] == 'M' && p[1] == 'M';
    if (!big && !(p[0] == 'I' && p[1] == 'I')) return 1;
    uint32_t (*u16)(const uint8_t *) = big ? g4_be16 : g4_le16;
    uint32_t (*u32)(const uint8_t *) = big ? g4_be32 : g4_le32;
    size_t ifd = u32(p + 4);
    if (u16(p + 2) != 42 || ifd > n - 2) return 1;
    uint32_t entries = u16(p + ifd);
    for (uint32_t i = 0; i < entries && ifd + 2 + 12 * (size_t)(i + 1) <= n; i++) {
        const uint8_t *e = p + ifd + 2 + 12 * (size_t)i; /* tag, type, count, value */
        if (u16(e) != 0x0112) continue;
        uint32_t v = u16(e + 2) == 3 ? u16(e + 8) : u16(e + 2) == 4 ? u32(e + 8) : 1; /* SHORT or LONG */
        return v >= 1 && v <= 8 ? (int)v : 1;
    }
    return 1;
}

/* Turn *pixels (w, h) upright. 2 mirror, 3 half turn, 4 upside down, 5 transpose, 6 turn right, 7 transverse, 8 turn
 * left. */
static g4_status g4_orient(const g4_media *m, uint8_t **pixels, int *w, int *h, int orientation, g4_error *err)
{
    if (orientation <= 1) return G4_OK;
    size_t sw = (size_t)*w, sh = (size_t)*h, dw = orientation >= 5 ? sh : sw, dh = orientation >= 5 ? sw : sh;
    const uint8_t *src = *pixels;
    uint8_t *dst = g4_alloc(m->a, sw * sh, 3);
    if (!dst) return g4_fail(err, G4_ERR_MEMORY, "turning a picture of %zu x %zu: out of memory", sw, sh);
    for (size_t y = 0; y < dh; y++) {
        for (size_t x = 0; x < dw; x++) {
            size_t u = orientation >= 5 ? y : x,
                   v = orientation >= 5 ? x : y; /* source column and row before mirroring */
            if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8) u = sw - 1 - u;
            if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7) v = sh - 1 - v;
            memcpy(dst + 3 * (y * dw + x), src + 3 * (v * sw + u), 3);
        }
    }
    g4_free(m->a, *pixels);
    *pixels = dst;
    *w = (int)dw;
    *h = (int)dh;
    return G4_OK;
}

/* ---- 2. Resize and patches -----------------------------------------------------------------------
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

/* ---- 3. Inflate ------------------------------------------------------------------------------------
 *
 * In: a zlib stream (RFC 1950, 1951) in pieces; out: exactly the number of bytes the caller expects. */

typedef struct {
    const uint8_t *p, *end;                                         /* the piece being read */
    int (*next)(void *ctx, const uint8_t **p, const uint8_t **end); /* the next piece; 0: there is none */
    void *ctx;
    uint64_t bits;             /* next bit lowest */
    unsigned n_bits, invented; /* bits held; zero bytes put in after the end */
} g4_bits;

static void g4_bits_fill(g4_bits *b)
{
    while (b->n_bits <= 56) {
        uint64_t byte = 0;
        while (b->p == b->end && !b->invented && b->next(b->ctx, &b->p, &b->end)) { /* empty pieces are legal */
        }
        if (b->p < b->end)
            byte = *b->p++;
        else
            b->invented++;
        b->bits |= byte << b->n_bits;
        b->n_bits += 8;
    }
}
static uint32_t g4_bits_get(g4_bits *b, unsigned n) /* n <= 16 */
{
    if (b->n_bits < n) g4_bits_fill(b);
    uint32_t v = (uint32_t)(b->bits & ((UINT64_C(1) << n) - 1));
    b->bits >>= n;
    b->n_bits -= n;
    return v;
}
/* Did the reader use bits that the file does not have? */
static int g4_bits_overrun(const g4_bits *b) { return b->invented * 8 > b->n_bits; }

#define G4_HUFF_FAST 10
typedef struct {
    uint16_t fast[1 << G4_HUFF_FAST]; /* symbol << 4 | length, by the next bits; 0: longer code */
    uint16_t count[16];               /* codes of each length */
    uint16_t symbol[288];             /* in order of code */
} g4_huff;

/* Canonical code from lengths (RFC 1951, 3.2.2). 0: over-subscribed, or incomplete with more than one code. */
static int g4_huff_build(g4_huff *h, const uint8_t *length, int n)
{
    uint16_t offset[16], code[16];
    int left = 1, used = 0;
    memset(h, 0, sizeof *h);
    for (int i = 0; i < n; i++) h->count[length[i]]++;
    used = n - h->count[0];
    h->count[0] = 0;
    for (int l = 1; l < 16; l++) {
        left = 2 * left - h->count[l];
        if (left < 0) return 0;
    }
    if (left > 0 && used > 1) return 0;
    offset[1] = code[1] = 0;
    for (int l = 1; l < 15; l++) {
        offset[l + 1] = (uint16_t)(offset[l] + h->count[l]);
        code[l + 1] = (uint16_t)((code[l] + h->count[l]) << 1);
    }
    for (int i = 0; i < n; i++) {
        int l = length[i];
        if (l == 0) continue;
        h->symbol[offset[l]++] = (uint16_t)i;
        unsigned c = code[l]++, reversed = 0;
        if (l > G4_HUFF_FAST) continue;
        for (int b = 0; b < l; b++) reversed |= (c >> b & 1u) << (l - 1 - b); /* codes arrive highest bit first */
        for (unsigned r = reversed; r < 1u << G4_HUFF_FAST; r += 1u << l) h->fast[r] = (uint16_t)(i << 4 | l);
    }
    return 1;
}

static int g4_huff_get(g4_bits *b, const g4_huff *h) /* -1: no such code */
{
    if (b->n_bits < 15) g4_bits_fill(b);
    unsigned e = h->fast[b->bits & ((1u << G4_HUFF_FAST) - 1)];
    if (e) {
        b->bits >>= e & 15;
        b->n_bits -= e & 15;
        return (int)(e >> 4);
    }
    int code = 0, first = 0, index = 0;
    for (unsigned l = 1; l < 16; l++) {
        code |= (int)(b->bits >> (l - 1) & 1);
        int count = h->count[l];
        if (code - count < first) {
            b->bits >>= l;
            b->n_bits -= l;
            return h->symbol[index + (code - first)];
        }
        index += count;
        first = (first + count) << 1;
        code <<= 1;
    }
    return -1;
}

/* Lengths of the two codes of a dynamic block (RFC 1951, 3.2.7). Returns NULL or what is wrong. */
static const char *g4_inflate_codes(g4_bits *b, g4_huff *lit, g4_huff *dist)
{
    static const uint8_t order[19] = { 16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15 };
    uint8_t length[288 + 32] = { 0 };
    int n_lit = (int)g4_bits_get(b, 5) + 257, n_dist = (int)g4_bits_get(b, 5) + 1, n_code = (int)g4_bits_get(b, 4) + 4;
    if (n_lit > 286 || n_dist > 30) return "too many length or distance codes";
    for (int i = 0; i < n_code; i++) length[order[i]] = (uint8_t)g4_bits_get(b, 3);
    if (!g4_huff_build(lit, length, 19)) return "bad code of code lengths";
    memset(length, 0, 19);
    for (int i = 0; i < n_lit + n_dist;) {
        int s = g4_huff_get(b, lit), repeat = 1;
        uint8_t value = (uint8_t)s;
        if (s < 0 || g4_bits_overrun(b)) return s < 0 ? "bad code length" : "truncated";
        if (s >= 16) {
            if (s == 16 && i == 0) return "repeat without a length before it";
            value = s == 16 ? length[i - 1] : 0;
            repeat = s == 16   ? 3 + (int)g4_bits_get(b, 2)
                     : s == 17 ? 3 + (int)g4_bits_get(b, 3)
                               : 11 + (int)g4_bits_get(b, 7);
        }
        if (i + repeat > n_lit + n_dist) return "code lengths run over";
        while (repeat-- > 0) length[i++] = value;
    }
    if (length[256] == 0) return "no end-of-block code";
    if (!g4_huff_build(dist, length + n_lit, n_dist)) return "bad distance code";
    if (!g4_huff_build(lit, length, n_lit)) return "bad literal code";
    return NULL;
}

/* One Huffman block into out[*pos..size). Returns NULL or what is wrong. */
static const char *g4_inflate_block(g4_bits *b, const g4_huff *lit, const g4_huff *dist, uint8_t *out, size_t size,
                                    size_t *pos)
{
    static const uint16_t len_base[29] = { 3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                           31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258 };
    static const uint8_t len_extra[29] = { 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                           2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0 };
    static const uint16_t dist_base[30] = { 1,    2,    3,    4,    5,    7,    9,    13,    17,    25,
                                            33,   49,   65,   97,   129,  193,  257,  385,   513,   769,
                                            1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577 };
    size_t at = *pos;
    for (;;) {
        int s = g4_huff_get(b, lit);
        if (s < 0) return "bad literal code in the data";
        if (g4_bits_overrun(b)) return "truncated";
        if (s < 256) {
            if (at == size) return "more data than the picture holds";
            out[at++] = (uint8_t)s;
            continue;
        }
        if (s == 256) break;
        if (s > 285) return "bad length code in the data";
        size_t n = len_base[s - 257] + g4_bits_get(b, len_extra[s - 257]);
        int d = g4_huff_get(b, dist);
        if (d < 0 || d > 29) return "bad distance code in the data";
        size_t back = dist_base[d] + g4_bits_get(b, d < 4 ? 0 : (unsigned)d / 2 - 1);
        if (back > at) return "distance before the start";
        if (n > size - at) return "more data than the picture holds";
        if (back >= n) {
            memcpy(out + at, out + at - back, n);
        } else {
            for (size_t i = 0; i < n; i++) out[at + i] = out[at + i - back]; /* overlapping: repeats */
        }
        at += n;
    }
    *pos = at;
    return NULL;
}

static uint32_t g4_adler32(const uint8_t *p, size_t n)
{
    uint32_t a = 1, b = 0;
    while (n > 0) {
        size_t m = n < 5552 ? n : 5552; /* the sums stay below 2^32 */
        n -= m;
        while (m-- > 0) {
            a += *p++;
            b += a;
        }
        a %= 65521;
        b %= 65521;
    }
    return b << 16 | a;
}

/* The whole zlib stream of b into out, which it must fill exactly. Returns NULL or what is wrong. */
static const char *g4_inflate(const g4_allocator *a, g4_bits *b, uint8_t *out, size_t size)
{
    const char *wrong = NULL;
    size_t at = 0;
    uint32_t cmf = g4_bits_get(b, 8), flags = g4_bits_get(b, 8), final = 0;
    if ((cmf & 15) != 8 || cmf >> 4 > 7 || (cmf << 8 | flags) % 31 != 0 || flags & 32) return "not a zlib stream";
    g4_huff *huff = g4_alloc(a, 2, sizeof *huff); /* literals, distances */
    if (!huff) return "out of memory";
    while (!final && !wrong) {
        final = g4_bits_get(b, 1);
        uint32_t type = g4_bits_get(b, 2);
        if (type == 0) {
            g4_bits_get(b, b->n_bits & 7); /* to the byte border: whole bytes are held */
            uint32_t n = g4_bits_get(b, 16), check = g4_bits_get(b, 16);
            if (g4_bits_overrun(b))
                wrong = "truncated";
            else if ((n ^ check) != 0xffff)
                wrong = "stored block with a bad length";
            else if (n > size - at)
                wrong = "more data than the picture holds";
            for (; !wrong && n > 0; n--) {
                out[at++] = (uint8_t)g4_bits_get(b, 8);
                if (g4_bits_overrun(b)) wrong = "truncated";
            }
        } else if (type == 1) {
            uint8_t length[288];
            for (int i = 0; i < 288; i++) length[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
            g4_huff_build(&huff[0], length, 288);
            memset(length, 5, 32);
            g4_huff_build(&huff[1], length, 32);
            wrong = g4_inflate_block(b, &huff[0], &huff[1], out, size, &at);
        } else if (type == 2) {
            wrong = g4_inflate_codes(b, &huff[0], &huff[1]);
            if (!wrong) wrong = g4_inflate_block(b, &huff[0], &huff[1], out, size, &at);
        } else {
            wrong = "bad block type";
        }
        if (!wrong && g4_bits_overrun(b)) wrong = "truncated";
    }
    g4_free(a, huff);
    if (wrong) return wrong;
    if (at != size) return "less data than the picture needs";
    g4_bits_get(b, b->n_bits & 7);
    uint32_t sum = 0;
    for (int i = 0; i < 4; i++) sum = sum << 8 | g4_bits_get(b, 8);
    if (g4_bits_overrun(b)) return "truncated";
    return sum == g4_adler32(out, size) ? NULL : "checksum of the data does not match";
}

/* ---- 4. PNG -------------------------------------------------------------------------------------------
 *
 * In: a PNG file (W3C PNG, third edition), the first picture of it. Out: RGB over white. Chunks are checked by their
 * CRC; a damaged ancillary chunk is skipped, a damaged critical one is an error. Gamma and colour profiles are not
 * applied, as in Pillow. */

typedef struct {
    const uint8_t *data;
    size_t size, idat; /* idat: offset of the next chunk to read pixels from */
    uint32_t w, h, depth, type, channels;
    int interlaced, orientation;
    uint8_t palette[256][3]; /* over white */
    int has_key;             /* tRNS of grey and RGB: this sample value is transparent */
    uint32_t key[3];
    uint32_t crc[256];
} g4_png;

static void g4_crc_table(uint32_t *t)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
        t[i] = c;
    }
}
static uint32_t g4_crc(const uint32_t *t, uint32_t crc, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) crc = t[(crc ^ p[i]) & 255] ^ crc >> 8;
    return crc;
}

/* The chunk at offset `at`: length, name and data; 0 when the file ends inside it. crc_ok tells whether its check
 * matches. */
static int g4_png_chunk(const g4_png *g, size_t at, const uint8_t **name, size_t *n, int *crc_ok)
{
    if (at > g->size || g->size - at < 12) return 0;
    *n = g4_be32(g->data + at);
    if (*n > g->size - at - 12) return 0;
    *name = g->data + at + 4;
    *crc_ok = (g4_crc(g->crc, 0xffffffffu, *name, *n + 4) ^ 0xffffffffu) == g4_be32(*name + 4 + *n);
    return 1;
}

static int g4_png_next_idat(void *ctx, const uint8_t **p, const uint8_t **end)
{
    g4_png *g = ctx;
    const uint8_t *name;
    size_t n;
    int crc_ok;
    if (!g4_png_chunk(g, g->idat, &name, &n, &crc_ok) || memcmp(name, "IDAT", 4) != 0) return 0;
    *p = name + 4;
    *end = *p + n;
    g->idat += 12 + n;
    return 1;
}

/* Undo the filters of h rows of n bytes, each behind its filter byte. bpp: bytes back to the pixel on the left. 0:
 * unknown filter. */
static int g4_png_unfilter(uint8_t *raw, size_t n, uint32_t h, size_t bpp)
{
    const uint8_t *up = NULL;
    for (uint32_t y = 0; y < h; y++) {
        uint8_t filter = raw[0], *row = raw + 1;
        switch (filter) {
        case 0: break;
        case 1:
            for (size_t i = bpp; i < n; i++) row[i] = (uint8_t)(row[i] + row[i - bpp]);
            break;
        case 2:
            for (size_t i = 0; up && i < n; i++) row[i] = (uint8_t)(row[i] + up[i]);
            break;
        case 3:
            for (size_t i = 0; i < n; i++) {
                unsigned left = i < bpp ? 0 : row[i - bpp], above = up ? up[i] : 0;
                row[i] = (uint8_t)(row[i] + ((left + above) >> 1));
            }
            break;
        case 4:
            for (size_t i = 0; i < n; i++) {
                int a = i < bpp ? 0 : row[i - bpp], b = up ? up[i] : 0, c = up && i >= bpp ? up[i - bpp] : 0;
                int pa = b - c, pb = a - c, pc = pa + pb;
                if (pa < 0) pa = -pa;
                if (pb < 0) pb = -pb;
                if (pc < 0) pc = -pc;
                row[i] = (uint8_t)(row[i] + (pa <= pb && pa <= pc ? a : pb <= pc ? b : c));
            }
            break;
        default: return 0;
        }
        up = row;
        raw += n + 1;
    }
    return 1;
}

/* n pixels of an unfiltered row to RGB, `step` pixels apart. An index beyond the palette is black, as in Pillow. */
static void g4_png_row(const g4_png *g, const uint8_t *row, uint32_t n, uint8_t *dst, size_t step)
{
    uint32_t wide = g->depth == 16 ? 2 : 1, scale = g->depth < 8 ? 255 / ((1u << g->depth) - 1) : 1;
    for (uint32_t x = 0; x < n; x++, dst += 3 * step) {
        if (g->depth < 8) { /* grey or palette */
            uint32_t bit = x * g->depth,
                     v = (uint32_t)row[bit >> 3] >> (8 - g->depth - (bit & 7)) & ((1u << g->depth) - 1);
            if (g->type == 3) {
                memcpy(dst, g->palette[v], 3);
            } else {
                memset(dst, g->has_key && v == g->key[0] ? 255 : (int)(v * scale), 3);
            }
            continue;
        }
        const uint8_t *p = row + (size_t)x * g->channels * wide;
        if (g->type == 3) {
            memcpy(dst, g->palette[p[0]], 3);
            continue;
        }
        uint32_t colours = g->type & 2 ? 3 : 1, alpha = g->type & 4 ? p[colours * wide] : 255;
        if (g->has_key) {
            uint32_t same = 0;
            for (uint32_t c = 0; c < colours; c++) same += (wide == 2 ? g4_be16(p + 2 * c) : p[c]) == g->key[c];
            if (same == colours) alpha = 0;
        }
        for (uint32_t c = 0; c < 3; c++) {
            uint8_t v = p[colours == 3 ? c * wide : 0];
            dst[c] = alpha == 255 ? v : g4_over_white(v, alpha);
        }
    }
}

static g4_status g4_png_header(g4_png *g, const uint8_t *d, size_t n, g4_error *err)
{
    static const uint8_t channels[7] = { 1, 0, 3, 1, 2, 0, 4 };
    static const uint8_t depths[7] = { 1 | 2 | 4 | 8 | 16, 0, 8 | 16, 1 | 2 | 4 | 8, 8 | 16, 0, 8 | 16 };
    if (n != 13) return g4_fail(err, G4_ERR_FORMAT, "PNG: header of %zu bytes, expected 13", n);
    g->w = g4_be32(d);
    g->h = g4_be32(d + 4);
    g->depth = d[8];
    g->type = d[9];
    g->interlaced = d[12];
    if (g->type > 6 || channels[g->type] == 0 || g->depth == 0 || (g->depth & (g->depth - 1)) ||
        !(depths[g->type] & g->depth))
        return g4_fail(err, G4_ERR_FORMAT, "PNG: colour type %u with %u bits does not exist", (unsigned)g->type,
                       (unsigned)g->depth);
    if (d[10] != 0 || d[11] != 0 || d[12] > 1)
        return g4_fail(err, G4_ERR_FORMAT, "PNG: compression %u, filter %u, interlace %u: expected 0, 0, 0 or 1", d[10],
                       d[11], d[12]);
    g->channels = channels[g->type];
    return G4_OK;
}

static g4_status g4_png_palette(g4_png *g, const uint8_t *plte, size_t n_plte, const uint8_t *trns, size_t n_trns,
                                g4_error *err)
{
    if (g->type == 3) {
        if (!plte || n_plte == 0 || n_plte % 3 != 0 || n_plte > 768)
            return g4_fail(err, G4_ERR_FORMAT, "PNG: palette of %zu bytes, expected 3 to 768 in threes", n_plte);
        for (uint32_t i = 0; i < n_plte / 3; i++) {
            uint32_t alpha = trns && i < n_trns ? trns[i] : 255;
            for (int c = 0; c < 3; c++) g->palette[i][c] = g4_over_white(plte[3 * i + (uint32_t)c], alpha);
        }
    } else if (trns && !(g->type & 4)) {
        uint32_t colours = g->type & 2 ? 3 : 1;
        if (n_trns != 2 * colours)
            return g4_fail(err, G4_ERR_FORMAT, "PNG: tRNS of %zu bytes, expected %u", n_trns, (unsigned)(2 * colours));
        g->has_key = 1;
        for (uint32_t c = 0; c < colours; c++) g->key[c] = g4_be16(trns + 2 * c) & ((1u << g->depth) - 1);
    }
    return G4_OK;
}

/* Adam7: first column and row of each pass, then the steps; pass 7 of the table is the whole picture. */
static const uint8_t g4_adam7[8][4] = { { 0, 0, 8, 8 }, { 4, 0, 8, 8 }, { 0, 4, 4, 8 }, { 2, 0, 4, 4 },
                                        { 0, 2, 2, 4 }, { 1, 0, 2, 2 }, { 0, 1, 1, 2 }, { 0, 0, 1, 1 } };

static g4_status g4_png_pixels(const g4_media *m, g4_png *g, uint64_t idat_bytes, uint8_t *dst, g4_error *err)
{
    uint32_t bits = g->depth * g->channels;
    int first = g->interlaced ? 0 : 7, last = g->interlaced ? 7 : 8;
    uint64_t total = 0;
    for (int i = first; i < last; i++) { /* the pixel limit keeps this far from 2^64 */
        const uint8_t *t = g4_adam7[i];
        uint64_t pw = g->w > t[0] ? (g->w - t[0] + t[2] - 1u) / t[2] : 0,
                 ph = g->h > t[1] ? (g->h - t[1] + t[3] - 1u) / t[3] : 0;
        if (pw && ph) total += ph * ((pw * bits + 7) / 8 + 1);
    }
    /* deflate cannot do better than 258 bytes for 2 bits: no memory is taken on the word of a file that cannot fill it
     */
    if (total / 1032 > idat_bytes)
        return g4_fail(err, G4_ERR_FORMAT, "PNG: truncated: %" PRIu64 " bytes of IDAT cannot hold %u x %u pixels",
                       idat_bytes, (unsigned)g->w, (unsigned)g->h);
    uint8_t *raw = total > SIZE_MAX ? NULL : g4_alloc(m->a, (size_t)total, 1);
    if (!raw) return g4_fail(err, G4_ERR_MEMORY, "PNG: %" PRIu64 " bytes of pixels: out of memory", total);
    g4_bits b = { NULL, NULL, g4_png_next_idat, g, 0, 0, 0 };
    const char *wrong = g4_inflate(m->a, &b, raw, (size_t)total);
    g4_status s = G4_OK;
    if (wrong)
        s = g4_fail(err, strcmp(wrong, "out of memory") ? G4_ERR_FORMAT : G4_ERR_MEMORY,
                    "PNG: pixel data before byte %zu: %s", g->idat, wrong);
    uint8_t *at = raw;
    for (int i = first; !s && i < last; i++) {
        const uint8_t *t = g4_adam7[i];
        if (g->w <= t[0] || g->h <= t[1]) continue;
        uint32_t pw = (g->w - t[0] + t[2] - 1u) / t[2], ph = (g->h - t[1] + t[3] - 1u) / t[3];
        size_t n = ((size_t)pw * bits + 7) / 8;
        if (!g4_png_unfilter(at, n, ph, bits < 8 ? 1 : bits / 8))
            s = g4_fail(err, G4_ERR_FORMAT, "PNG: unknown filter, expected 0 to 4");
        for (uint32_t y = 0; !s && y < ph; y++) {
            uint8_t *d = dst + 3 * ((size_t)(y * t[3] + t[1]) * g->w + t[0]);
            g4_png_row(g, at + y * (n + 1) + 1, pw, d, t[2]);
        }
        at += (size_t)ph * (n + 1);
    }
    g4_free(m->a, raw);
    return s;
}

static g4_status g4_png_decode(const g4_media *m, const uint8_t *data, size_t size, uint8_t **pixels, int *w, int *h,
                               g4_error *err)
{
    g4_png g = { 0 };
    const uint8_t *plte = NULL, *trns = NULL, *name = NULL;
    size_t n_plte = 0, n_trns = 0, at = 8, n = 0;
    uint64_t idat_bytes = 0;
    int crc_ok = 0, idat_done = 0;
    g.data = data;
    g.size = size;
    g.orientation = 1;
    g4_crc_table(g.crc);
    *pixels = NULL;
    for (int first = 1;; first = 0) {
        if (!g4_png_chunk(&g, at, &name, &n, &crc_ok))
            return g4_fail(err, G4_ERR_FORMAT, "PNG: truncated in the chunk at byte %zu of %zu", at, size);
        if (!crc_ok && !(name[0] & 32))
            return g4_fail(err, G4_ERR_FORMAT, "PNG: the critical chunk at byte %zu does not match its checksum", at);
        if (first != !memcmp(name, "IHDR", 4))
            return g4_fail(err, G4_ERR_FORMAT, "PNG: IHDR must come first and once (byte %zu)", at);
        if (first) {
            g4_status s = g4_png_header(&g, name + 4, n, err);
            if (s) return s;
        } else if (!memcmp(name, "PLTE", 4)) {
            plte = name + 4;
            n_plte = n;
        } else if (!memcmp(name, "IDAT", 4)) {
            if (g.idat == 0) g.idat = at;
            if (!idat_done) idat_bytes += n;
        } else if (!memcmp(name, "IEND", 4)) {
            break;
        } else if (!(name[0] & 32)) {
            return g4_fail(err, G4_ERR_FORMAT, "PNG: unknown critical chunk at byte %zu", at);
        } else if (crc_ok && !memcmp(name, "tRNS", 4) && g.idat == 0) {
            trns = name + 4;
            n_trns = n;
        } else if (crc_ok && !memcmp(name, "eXIf", 4)) {
            g.orientation = g4_exif_orientation(name + 4, n);
        }
        if (g.idat != 0 && memcmp(name, "IDAT", 4) != 0) idat_done = 1;
        at += 12 + n;
    }
    if (g.idat == 0) return g4_fail(err, G4_ERR_FORMAT, "PNG: no IDAT chunk");
    g4_status s = g4_png_palette(&g, plte, n_plte, trns, n_trns, err);
    if (!s && (g.w == 0 || g.h == 0 || (uint64_t)g.w * g.h <= m->max_pixels) &&
        idat_bytes < (uint64_t)g.w * g.h / 8 / 1032)
        s = g4_fail(err, G4_ERR_FORMAT, "PNG: truncated: %" PRIu64 " bytes of IDAT cannot hold %u x %u pixels",
                    idat_bytes, (unsigned)g.w, (unsigned)g.h);
    if (!s) s = g4_pixels_alloc(m, "PNG", g.w, g.h, pixels, err);
    if (!s) s = g4_png_pixels(m, &g, idat_bytes, *pixels, err);
    *w = (int)g.w;
    *h = (int)g.h;
    if (!s) s = g4_orient(m, pixels, w, h, g.orientation, err);
    if (s) {
        g4_free(m->a, *pixels);
        *pixels = NULL;
    }
    return s;
}

/* ---- 5. JPEG --------------------------------------------------------------------------------------------
 *
 * In: ITU-T T.81 baseline, extended and progressive Huffman files of 8 bits, grey, YCbCr, RGB, CMYK and YCCK. Out: RGB,
 * equal bit for bit to libjpeg-turbo's defaults (accurate integer IDCT of jidctint.c, fancy upsampling of jdsample.c,
 * colour tables of jdcolor.c), CMYK turned into RGB as Pillow does. A sequential scan is transformed as it is read;
 * progressive ones keep all coefficients until the end. Damage that libjpeg would paint over with a warning is an error
 * here. */

#define G4_JPEG_MAX_SCANS 256 /* a progressive file of many empty scans would otherwise cost hours */

typedef struct {
    uint16_t fast[512]; /* symbol << 4 | length, by the next 9 bits; 0: longer code */
    int32_t last[17];   /* largest code of each length, -1: none */
    int32_t offset[17]; /* index of a code's symbol = code + offset[length] */
    uint8_t symbol[256];
    int present;
} g4_jpeg_huff;

typedef struct {
    int id, h, v, tq;             /* sampling factors, quantisation table */
    int blocks_w, blocks_h;       /* blocks with pixels in them */
    int stored_w, stored_h;       /* the same, rounded up to whole MCUs */
    int width, height;            /* samples: libjpeg's downsampled_width and _height */
    int dc_table, ac_table, pred; /* of the present scan */
    int seen, has_quant;          /* its DC was in some scan; quant is set */
    uint16_t quant[64];           /* as it was when the component's first scan began */
    uint8_t *plane;               /* (8 stored_h, 8 stored_w) */
    int16_t *coef;                /* (stored_h, stored_w, 64) in natural order, progressive only */
} g4_jpeg_comp;

typedef struct {
    const g4_media *m;
    const uint8_t *data;
    size_t size, at;
    int w, h, n_comps, progressive, max_h, max_v, mcus_w, mcus_h;
    g4_jpeg_comp comp[4];
    uint16_t quant[4][64];
    int has_quant[4];
    g4_jpeg_huff *huff;               /* (2, 4): DC, AC */
    uint32_t restart;                 /* MCUs between restart markers, 0: none */
    int has_jfif, adobe, orientation; /* adobe: colour transform of its marker, -1 without one */
    int scans;
    /* the scan being read */
    int n_scan, order[4], ss, se, ah, al;
    uint32_t eob_run;
    uint64_t bits;        /* n_bits of them, the next one highest */
    int n_bits, invented; /* invented: zero bytes put in where the data had ended */
} g4_jpeg;

static const uint8_t g4_zigzag[64] = { 0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                                       12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                                       35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                                       58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63 };

static void g4_jpeg_fill(g4_jpeg *j)
{
    while (j->n_bits <= 56) {
        uint64_t byte = 0;
        if (j->at < j->size && j->data[j->at] != 0xff) {
            byte = j->data[j->at++];
        } else {
            while (j->size - j->at >= 2 && j->data[j->at + 1] == 0xff) j->at++; /* fill bytes */
            if (j->size - j->at >= 2 && j->data[j->at + 1] == 0) {
                byte = 0xff;
                j->at += 2;
            } else {
                j->invented++; /* a marker, or the end of the file: stay before it */
            }
        }
        j->bits = j->bits << 8 | byte;
        j->n_bits += 8;
    }
}
static int g4_jpeg_get(g4_jpeg *j, int n) /* n <= 16 */
{
    if (j->n_bits < n) g4_jpeg_fill(j);
    j->n_bits -= n;
    return (int)(j->bits >> j->n_bits & ((UINT64_C(1) << n) - 1));
}
static int g4_jpeg_overrun(const g4_jpeg *j) { return j->invented * 8 > j->n_bits; }

static int g4_jpeg_symbol(g4_jpeg *j, const g4_jpeg_huff *h) /* -1: no such code */
{
    if (j->n_bits < 16) g4_jpeg_fill(j);
    unsigned e = h->fast[j->bits >> (j->n_bits - 9) & 511];
    if (e) {
        j->n_bits -= (int)(e & 15);
        return (int)(e >> 4);
    }
    for (int l = 10; l <= 16; l++) {
        int32_t code = (int32_t)(j->bits >> (j->n_bits - l) & ((1u << l) - 1));
        if (code <= h->last[l]) {
            j->n_bits -= l;
            return h->symbol[(code + h->offset[l]) & 255];
        }
    }
    return -1;
}

/* A number of s bits whose first half of the range is negative (T.81, F.2.2.1). s <= 15. */
static int g4_jpeg_signed(g4_jpeg *j, int s)
{
    if (s == 0) return 0;
    int v = g4_jpeg_get(j, s);
    return v < 1 << (s - 1) ? v - (1 << s) + 1 : v;
}

static g4_status g4_jpeg_tables(g4_jpeg *j, const uint8_t *p, size_t n, g4_error *err) /* DHT */
{
    while (n > 0) {
        if (n < 17) return g4_fail(err, G4_ERR_FORMAT, "JPEG: Huffman table of %zu bytes, expected 17 or more", n);
        size_t total = 0;
        for (int l = 1; l <= 16; l++) total += p[l];
        if (p[0] & 0xec || total > 256 || total > n - 17)
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: Huffman table 0x%02x of %zu codes in %zu bytes", p[0], total, n);
        g4_jpeg_huff *h = &j->huff[(p[0] >> 4) * 4 + (p[0] & 3)];
        memset(h, 0, sizeof *h);
        memcpy(h->symbol, p + 17, total);
        int32_t code = 0, k = 0;
        for (int l = 1; l <= 16; l++, code <<= 1) {
            h->offset[l] = k - code;
            for (int i = 0; i < p[l]; i++, code++, k++) {
                if (code >= 1 << l)
                    return g4_fail(err, G4_ERR_FORMAT, "JPEG: Huffman table 0x%02x has too many codes", p[0]);
                if (p[0] < 16 && h->symbol[k] > 15)
                    return g4_fail(err, G4_ERR_FORMAT, "JPEG: DC size %d, expected at most 15", h->symbol[k]);
                for (int r = 0; l <= 9 && r < 1 << (9 - l); r++)
                    h->fast[code << (9 - l) | r] = (uint16_t)(h->symbol[k] << 4 | l);
            }
            h->last[l] = p[l] ? code - 1 : -1;
        }
        h->present = 1;
        p += 17 + total;
        n -= 17 + total;
    }
    return G4_OK;
}

static g4_status g4_jpeg_quant(g4_jpeg *j, const uint8_t *p, size_t n, g4_error *err) /* DQT */
{
    while (n > 0) {
        size_t wide = p[0] >> 4 ? 2 : 1;
        if (p[0] & 0xec || n < 1 + 64 * wide)
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: quantisation table 0x%02x in %zu bytes", p[0], n);
        for (size_t i = 0; i < 64; i++)
            j->quant[p[0] & 3][g4_zigzag[i]] = (uint16_t)(wide == 2 ? g4_be16(p + 1 + 2 * i) : p[1 + i]);
        j->has_quant[p[0] & 3] = 1;
        p += 1 + 64 * wide;
        n -= 1 + 64 * wide;
    }
    return G4_OK;
}

static g4_status g4_jpeg_frame(g4_jpeg *j, const uint8_t *p, size_t n, g4_error *err) /* SOF0, SOF1, SOF2 */
{
    if (j->n_comps) return g4_fail(err, G4_ERR_FORMAT, "JPEG: a second frame header");
    if (n < 6 || n != 6 + 3 * (size_t)p[5]) return g4_fail(err, G4_ERR_FORMAT, "JPEG: frame header of %zu bytes", n);
    if (p[0] != 8) return g4_fail(err, G4_ERR_UNSUPPORTED, "JPEG: %d bits a sample, only 8 can be read", p[0]);
    uint32_t h = g4_be16(p + 1), w = g4_be16(p + 3);
    int comps = p[5];
    if (w == 0 || h == 0) return g4_fail(err, G4_ERR_FORMAT, "JPEG: size %u x %u", (unsigned)w, (unsigned)h);
    if (comps != 1 && comps != 3 && comps != 4)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "JPEG: %d components, expected 1, 3 or 4", comps);
    if ((uint64_t)w * h > j->m->max_pixels)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "JPEG: %u x %u pixels are more than the limit of %" PRIu64, (unsigned)w,
                       (unsigned)h, j->m->max_pixels);
    j->w = (int)w;
    j->h = (int)h;
    j->max_h = j->max_v = 1;
    for (int i = 0; i < comps; i++) {
        g4_jpeg_comp *c = &j->comp[i];
        c->id = p[6 + 3 * i];
        c->h = p[7 + 3 * i] >> 4;
        c->v = p[7 + 3 * i] & 15;
        c->tq = p[8 + 3 * i];
        if (c->h < 1 || c->h > 4 || c->v < 1 || c->v > 4 || c->tq > 3)
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: component %d samples %d x %d, quantisation table %d", i, c->h,
                           c->v, c->tq);
        j->max_h = g4_max_int(j->max_h, c->h);
        j->max_v = g4_max_int(j->max_v, c->v);
    }
    j->mcus_w = (j->w + 8 * j->max_h - 1) / (8 * j->max_h);
    j->mcus_h = (j->h + 8 * j->max_v - 1) / (8 * j->max_v);
    uint64_t blocks = 0;
    for (int i = 0; i < comps; i++) {
        g4_jpeg_comp *c = &j->comp[i];
        if (j->max_h % c->h || j->max_v % c->v)
            return g4_fail(err, G4_ERR_UNSUPPORTED, "JPEG: component %d samples %d x %d of %d x %d: not a whole ratio",
                           i, c->h, c->v, j->max_h, j->max_v);
        c->width = (j->w * c->h + j->max_h - 1) / j->max_h;
        c->height = (j->h * c->v + j->max_v - 1) / j->max_v;
        c->blocks_w = (c->width + 7) / 8;
        c->blocks_h = (c->height + 7) / 8;
        c->stored_w = j->mcus_w * c->h;
        c->stored_h = j->mcus_h * c->v;
        blocks += (uint64_t)c->blocks_w * (uint64_t)c->blocks_h;
    }
    if (blocks / 8 > j->size) /* a block takes one bit or more */
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: truncated: %zu bytes cannot hold %u x %u pixels", j->size,
                       (unsigned)w, (unsigned)h);
    for (int i = 0; i < comps; i++) {
        g4_jpeg_comp *c = &j->comp[i];
        size_t n_blocks = (size_t)c->stored_w * (size_t)c->stored_h;
        c->plane = g4_alloc(j->m->a, n_blocks, 64);
        if (j->progressive) c->coef = g4_alloc(j->m->a, n_blocks, 64 * sizeof *c->coef);
        if (!c->plane || (j->progressive && !c->coef))
            return g4_fail(err, G4_ERR_MEMORY, "JPEG: %u x %u pixels: out of memory", (unsigned)w, (unsigned)h);
    }
    j->n_comps = comps;
    return G4_OK;
}

/* One direction of the 8-point inverse DCT of jidctint.c: 13 fraction bits, results rounded down to the given shift. in
 * and out step by `step`. Unsigned, so that the sums of hostile coefficients wrap instead of being undefined. */
static void g4_idct_8(int32_t *v, size_t step, int shift)
{
    uint32_t x[8];
    for (size_t i = 0; i < 8; i++) x[i] = (uint32_t)v[i * step];
    uint32_t z1 = (x[2] + x[6]) * 4433u;
    uint32_t t2 = z1 - x[6] * 15137u, t3 = z1 + x[2] * 6270u;
    uint32_t t0 = (x[0] + x[4]) << 13, t1 = (x[0] - x[4]) << 13;
    uint32_t e0 = t0 + t3, e3 = t0 - t3, e1 = t1 + t2, e2 = t1 - t2;
    z1 = x[7] + x[1];
    uint32_t z2 = x[5] + x[3], z3 = x[7] + x[3], z4 = x[5] + x[1], z5 = (z3 + z4) * 9633u;
    z1 *= 7373u;
    z2 *= 20995u;
    z3 = z5 - z3 * 16069u;
    z4 = z5 - z4 * 3196u;
    t0 = x[7] * 2446u - z1 + z3;
    t1 = x[5] * 16819u - z2 + z4;
    t2 = x[3] * 25172u - z2 + z3;
    t3 = x[1] * 12299u - z1 + z4;
    uint32_t half = 1u << (shift - 1);
    v[0] = (int32_t)(e0 + t3 + half) >> shift;
    v[step] = (int32_t)(e1 + t2 + half) >> shift;
    v[2 * step] = (int32_t)(e2 + t1 + half) >> shift;
    v[3 * step] = (int32_t)(e3 + t0 + half) >> shift;
    v[4 * step] = (int32_t)(e3 - t0 + half) >> shift;
    v[5 * step] = (int32_t)(e2 - t1 + half) >> shift;
    v[6 * step] = (int32_t)(e1 - t2 + half) >> shift;
    v[7 * step] = (int32_t)(e0 - t3 + half) >> shift;
}

static uint8_t g4_clamp_u8(int32_t v) { return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v); }

/* coef (64), natural order -> 8 x 8 samples. dc_only: all others are zero. */
static void g4_jpeg_idct(const int16_t *coef, const uint16_t *quant, int dc_only, uint8_t *out, size_t stride)
{
    int32_t v[64];
    if (dc_only) {
        uint8_t level = g4_clamp_u8((((int16_t)(uint32_t)(coef[0] * (int32_t)quant[0]) + 4) >> 3) + 128);
        for (size_t y = 0; y < 8; y++) memset(out + y * stride, level, 8);
        return;
    }
    for (int i = 0; i < 64; i++)
        v[i] = (int16_t)(uint32_t)(coef[i] * (int32_t)quant[i]); /* 16 bits, as libjpeg-turbo's vector code */
    for (size_t x = 0; x < 8; x++) g4_idct_8(v + x, 8, 13 - 2);  /* columns keep 2 fraction bits */
    for (size_t y = 0; y < 8; y++) {
        g4_idct_8(v + 8 * y, 1, 13 + 2 + 3);
        for (size_t x = 0; x < 8; x++) out[y * stride + x] = g4_clamp_u8(v[8 * y + x] + 128);
    }
}

/* The block readers return NULL or what is wrong. */
static const char *g4_jpeg_block(g4_jpeg *j, g4_jpeg_comp *c, int16_t *b,
                                 int *dc_only) /* sequential: b is zero on entry */
{
    int s = g4_jpeg_symbol(j, &j->huff[c->dc_table]);
    if (s < 0) return "bad DC code";
    c->pred = (int16_t)(uint32_t)(c->pred + g4_jpeg_signed(j, s));
    b[0] = (int16_t)c->pred;
    const g4_jpeg_huff *ac = &j->huff[4 + c->ac_table];
    *dc_only = 1;
    for (int k = 1; k < 64; k++) {
        int rs = g4_jpeg_symbol(j, ac);
        if (rs < 0) return "bad AC code";
        s = rs & 15;
        if (s == 0) {
            if (rs != 0xf0) break;
            k += 15;
            continue;
        }
        k += rs >> 4;
        if (k > 63) return "coefficients run over the block";
        b[g4_zigzag[k]] = (int16_t)g4_jpeg_signed(j, s);
        *dc_only = 0;
    }
    return NULL;
}

static const char *g4_jpeg_dc(g4_jpeg *j, g4_jpeg_comp *c, int16_t *b) /* progressive, first and refining */
{
    if (j->ah) {
        if (g4_jpeg_get(j, 1)) b[0] = (int16_t)(b[0] | 1 << j->al);
        return NULL;
    }
    int s = g4_jpeg_symbol(j, &j->huff[c->dc_table]);
    if (s < 0) return "bad DC code";
    c->pred = (int16_t)(uint32_t)(c->pred + g4_jpeg_signed(j, s));
    b[0] = (int16_t)(uint32_t)(c->pred * (1 << j->al));
    return NULL;
}

static const char *g4_jpeg_ac_first(g4_jpeg *j, const g4_jpeg_comp *c, int16_t *b)
{
    const g4_jpeg_huff *ac = &j->huff[4 + c->ac_table];
    if (j->eob_run > 0) {
        j->eob_run--;
        return NULL;
    }
    for (int k = j->ss; k <= j->se; k++) {
        int rs = g4_jpeg_symbol(j, ac), r = rs >> 4, s = rs & 15;
        if (rs < 0) return "bad AC code";
        if (s == 0) {
            if (r < 15) {
                j->eob_run = (1u << r) - 1 + (uint32_t)g4_jpeg_get(j, r);
                break;
            }
            k += 15;
            continue;
        }
        k += r;
        if (k > 63) return "coefficients run over the block";
        b[g4_zigzag[k]] = (int16_t)(uint32_t)(g4_jpeg_signed(j, s) * (1 << j->al));
    }
    return NULL;
}

/* One more bit of a coefficient that is not zero. */
static void g4_jpeg_correct(g4_jpeg *j, int16_t *coef)
{
    int bit = 1 << j->al;
    if (g4_jpeg_get(j, 1) && !(*coef & bit)) *coef = (int16_t)(*coef >= 0 ? *coef + bit : *coef - bit);
}

static const char *g4_jpeg_ac_refine(g4_jpeg *j, const g4_jpeg_comp *c, int16_t *b)
{
    const g4_jpeg_huff *ac = &j->huff[4 + c->ac_table];
    int k = j->ss;
    while (j->eob_run == 0 && k <= j->se) {
        int rs = g4_jpeg_symbol(j, ac), r = rs >> 4, s = rs & 15, value = 0;
        if (rs < 0) return "bad AC code";
        if (s > 1) return "a refinement of more than one bit";
        if (s) {
            value = g4_jpeg_get(j, 1) ? 1 << j->al : -(1 << j->al);
        } else if (r < 15) {
            j->eob_run = (1u << r) + (uint32_t)g4_jpeg_get(j, r); /* this block included */
            break;
        }
        for (; k <= j->se; k++) { /* skip r zeros, correcting what is not zero on the way */
            int16_t *coef = b + g4_zigzag[k];
            if (*coef)
                g4_jpeg_correct(j, coef);
            else if (r-- == 0)
                break;
        }
        if (value) {
            if (k > j->se) return "coefficients run over the block";
            b[g4_zigzag[k]] = (int16_t)value;
        }
        k++;
    }
    if (j->eob_run > 0) {
        for (; k <= j->se; k++) {
            int16_t *coef = b + g4_zigzag[k];
            if (*coef) g4_jpeg_correct(j, coef);
        }
        j->eob_run--;
    }
    return NULL;
}

static const char *g4_jpeg_one(g4_jpeg *j, g4_jpeg_comp *c, int bx, int by) /* the block at column bx, row by */
{
    size_t at = (size_t)by * (size_t)c->stored_w + (size_t)bx;
    if (!j->progressive) {
        int16_t b[64] = { 0 };
        int dc_only;
        const char *wrong = g4_jpeg_block(j, c, b, &dc_only);
        size_t stride = (size_t)c->stored_w * 8;
        if (!wrong) g4_jpeg_idct(b, c->quant, dc_only, c->plane + (size_t)by * 8 * stride + (size_t)bx * 8, stride);
        return wrong;
    }
    int16_t *b = c->coef + 64 * at;
    if (j->ss == 0) return g4_jpeg_dc(j, c, b);
    return j->ah ? g4_jpeg_ac_refine(j, c, b) : g4_jpeg_ac_first(j, c, b);
}

/* Move to the next marker and return its code, or -1 at the end of the file. */
static int g4_jpeg_marker(g4_jpeg *j)
{
    for (;;) {
        while (j->at < j->size && j->data[j->at] != 0xff) j->at++;
        while (j->at < j->size && j->data[j->at] == 0xff) j->at++;
        if (j->at >= j->size) return -1;
        int code = j->data[j->at++];
        if (code) return code;
    }
}

static g4_status g4_jpeg_scan_header(g4_jpeg *j, const uint8_t *p, size_t n, g4_error *err) /* SOS */
{
    if (!j->n_comps) return g4_fail(err, G4_ERR_FORMAT, "JPEG: a scan before the frame header");
    if (n < 1 || p[0] < 1 || p[0] > 4 || n != 4 + 2 * (size_t)p[0])
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: scan header of %zu bytes", n);
    if (++j->scans > G4_JPEG_MAX_SCANS)
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: more than %d scans", G4_JPEG_MAX_SCANS);
    j->n_scan = p[0];
    const uint8_t *tail = p + 1 + 2 * j->n_scan;
    j->ss = tail[0];
    j->se = tail[1];
    j->ah = tail[2] >> 4;
    j->al = tail[2] & 15;
    int dc = !j->progressive || j->ss == 0, ac = !j->progressive || j->ss > 0, blocks = 0;
    if (j->progressive && (j->se > 63 || j->ss > j->se || (j->ss == 0 && j->se != 0) || (j->ss > 0 && j->n_scan != 1) ||
                           j->al > 13 || (j->ah != 0 && j->ah != j->al + 1)))
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: scan of coefficients %d..%d, bits %d..%d of %d components", j->ss,
                       j->se, j->ah, j->al, j->n_scan);
    for (int i = 0; i < j->n_scan; i++) {
        int k = 0;
        while (k < j->n_comps && j->comp[k].id != p[1 + 2 * i]) k++;
        for (int e = 0; e < i; e++) {
            if (j->order[e] == k) k = j->n_comps;
        }
        if (k >= j->n_comps)
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: the scan names component %d, which is unknown or named twice",
                           p[1 + 2 * i]);
        g4_jpeg_comp *c = &j->comp[k];
        j->order[i] = k;
        c->dc_table = p[2 + 2 * i] >> 4;
        c->ac_table = p[2 + 2 * i] & 15;
        blocks += c->h * c->v;
        if (c->dc_table > 3 || c->ac_table > 3 || (dc && !j->ah && !j->huff[c->dc_table].present) ||
            (ac && !j->huff[4 + c->ac_table].present))
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: the scan uses Huffman tables %d and %d, which are not there",
                           c->dc_table, c->ac_table);
        if (!c->has_quant) {
            if (!j->has_quant[c->tq])
                return g4_fail(err, G4_ERR_FORMAT, "JPEG: component %d uses quantisation table %d, which is not there",
                               k, c->tq);
            memcpy(c->quant, j->quant[c->tq], sizeof c->quant);
            c->has_quant = 1;
        }
        if (dc) c->seen = 1;
    }
    if (j->n_scan > 1 && blocks > 10)
        return g4_fail(err, G4_ERR_FORMAT, "JPEG: %d blocks in one unit, expected at most 10", blocks);
    return G4_OK;
}

static g4_status g4_jpeg_scan(g4_jpeg *j, g4_error *err)
{
    g4_jpeg_comp *only = &j->comp[j->order[0]];
    int single = j->n_scan == 1, mw = single ? only->blocks_w : j->mcus_w, mh = single ? only->blocks_h : j->mcus_h;
    uint32_t left = j->restart, rst = 0;
    j->bits = 0;
    j->n_bits = j->invented = 0;
    j->eob_run = 0;
    for (int i = 0; i < 4; i++) j->comp[i].pred = 0;
    for (int my = 0; my < mh; my++) {
        for (int mx = 0; mx < mw; mx++) {
            const char *wrong = NULL;
            if (j->restart && left == 0) {
                int code = g4_jpeg_overrun(j) ? -1 : g4_jpeg_marker(j);
                if (code != (int)(0xd0 + rst))
                    return g4_fail(err, G4_ERR_FORMAT, "JPEG: byte %zu: expected restart marker %u", j->at,
                                   (unsigned)rst);
                rst = (rst + 1) & 7;
                left = j->restart;
                j->n_bits = j->invented = 0;
                j->eob_run = 0;
                for (int i = 0; i < 4; i++) j->comp[i].pred = 0;
            }
            left--;
            if (single) {
                wrong = g4_jpeg_one(j, only, mx, my);
            } else {
                for (int i = 0; i < j->n_scan; i++) {
                    g4_jpeg_comp *c = &j->comp[j->order[i]];
                    for (int b = 0; !wrong && b < c->h * c->v; b++)
                        wrong = g4_jpeg_one(j, c, mx * c->h + b % c->h, my * c->v + b / c->h);
                }
            }
            if (!wrong && g4_jpeg_overrun(j)) wrong = j->at >= j->size ? "truncated" : "the data ends early";
            if (wrong)
                return g4_fail(err, G4_ERR_FORMAT, "JPEG: scan %d, unit %d of row %d of %d, before byte %zu: %s",
                               j->scans, mx, my, mh, j->at, wrong);
        }
    }
    return G4_OK;
}

/* Row y of component c, scaled to `n` output columns (jdsample.c: fullsize, h2v1, h1v2, h2v2 fancy, int_upsample). */
static void g4_jpeg_upsample(const g4_jpeg *j, const g4_jpeg_comp *c, int y, uint8_t *out, int n)
{
    int eh = j->max_h / c->h, ev = j->max_v / c->v, last = c->width - 1;
    size_t stride = (size_t)c->stored_w * 8;
    int row = y / ev;
    const uint8_t *in = c->plane + (size_t)row * stride;
    if (eh == 1 && ev == 1) {
        memcpy(out, in, (size_t)n);
        return;
    }
    int near_row = y & 1 ? g4_min_int(row + 1, c->height - 1)
                         : g4_max_int(row - 1, 0); /* beyond the picture the edge row repeats */
    const uint8_t *near = c->plane + (size_t)near_row * stride;
    if (eh == 1 && ev == 2) {
        int bias = y & 1 ? 2 : 1;
        for (int x = 0; x < n; x++) out[x] = (uint8_t)((in[x] * 3 + near[x] + bias) >> 2);
    } else if (eh == 2 && ev == 1 && c->width > 2) {
        out[0] = in[0]; /* out has room for 2 * width */
        out[1] = (uint8_t)((in[0] * 3 + in[1] + 2) >> 2);
        for (int x = 1; x < last; x++) {
            out[2 * x] = (uint8_t)((in[x] * 3 + in[x - 1] + 1) >> 2);
            out[2 * x + 1] = (uint8_t)((in[x] * 3 + in[x + 1] + 2) >> 2);
        }
        out[2 * last] = (uint8_t)((in[last] * 3 + in[last - 1] + 1) >> 2);
        out[2 * last + 1] = in[last];
    } else if (eh == 2 && ev == 2 && c->width > 2) {
        int prev = 0, here = in[0] * 3 + near[0], next = in[1] * 3 + near[1];
        out[0] = (uint8_t)((here * 4 + 8) >> 4);
        out[1] = (uint8_t)((here * 3 + next + 7) >> 4);
        for (int x = 1; x < last; x++) {
            prev = here;
            here = next;
            next = in[x + 1] * 3 + near[x + 1];
            out[2 * x] = (uint8_t)((here * 3 + prev + 8) >> 4);
            out[2 * x + 1] = (uint8_t)((here * 3 + next + 7) >> 4);
        }
        out[2 * last] = (uint8_t)((next * 3 + here + 8) >> 4);
        out[2 * last + 1] = (uint8_t)((next * 4 + 7) >> 4);
    } else {
        for (int x = 0; x < n; x++) out[x] = in[x / eh];
    }
}

/* Pillow's product of two levels, rounded: a * b / 255. */
static int g4_mul_255(int a, int b)
{
    int t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

enum { G4_JPEG_GREY, G4_JPEG_RGB, G4_JPEG_YCC, G4_JPEG_CMYK, G4_JPEG_YCCK };

static int g4_jpeg_colours(const g4_jpeg *j) /* jdapimin.c, default_decompress_parms */
{
    const g4_jpeg_comp *c = j->comp;
    if (j->n_comps == 1) return G4_JPEG_GREY;
    if (j->n_comps == 4) return j->adobe <= 0 ? G4_JPEG_CMYK : G4_JPEG_YCCK;
    if (j->has_jfif) return G4_JPEG_YCC;
    if (j->adobe >= 0) return j->adobe == 0 ? G4_JPEG_RGB : G4_JPEG_YCC;
    return c[0].id == 'R' && c[1].id == 'G' && c[2].id == 'B' ? G4_JPEG_RGB : G4_JPEG_YCC;
}

/* Upsample and convert: jdcolor.c's tables with 16 fraction bits. CMYK is stored inverted, as everybody does since
 * Adobe. */
static g4_status g4_jpeg_output(const g4_jpeg *j, uint8_t *dst, g4_error *err)
{
    int colours = g4_jpeg_colours(j), n = j->w;
    size_t room = (size_t)j->mcus_w * 8 * (size_t)j->max_h + 8;
    uint8_t *rows = g4_alloc(j->m->a, room, 4);
    int32_t cr_r[256], cb_b[256], cr_g[256], cb_g[256];
    if (!rows) return g4_fail(err, G4_ERR_MEMORY, "JPEG: out of memory");
    for (int i = 0; i < 256; i++) {
        int32_t x = i - 128;
        cr_r[i] = (91881 * x + 32768) >> 16;  /* 1.402   */
        cb_b[i] = (116130 * x + 32768) >> 16; /* 1.772   */
        cr_g[i] = -46802 * x;                 /* 0.71414 */
        cb_g[i] = -22554 * x + 32768;         /* 0.34414 */
    }
    for (int y = 0; y < j->h; y++) {
        const uint8_t *p[4] = { rows, rows + room, rows + 2 * room, rows + 3 * room };
        for (int i = 0; i < j->n_comps; i++) g4_jpeg_upsample(j, &j->comp[i], y, rows + (size_t)i * room, n);
        for (int x = 0; x < n; x++, dst += 3) {
            int a = p[0][x], b = p[1][x], c = p[2][x];
            if (colours == G4_JPEG_GREY) {
                b = c = a;
            } else if (colours == G4_JPEG_YCC || colours == G4_JPEG_YCCK) {
                int r = a + cr_r[c], g = a + ((cb_g[b] + cr_g[c]) >> 16), blue = a + cb_b[b];
                int flip = colours == G4_JPEG_YCCK; /* YCCK holds C = 255 - R, M = 255 - G, Y = 255 - B */
                a = g4_clamp_u8(flip ? 255 - r : r);
                b = g4_clamp_u8(flip ? 255 - g : g);
                c = g4_clamp_u8(flip ? 255 - blue : blue);
            }
            if (colours >= G4_JPEG_CMYK) {
                int k = p[3][x]; /* stored inverted: this is 255 - K */
                a = k - g4_mul_255(255 - a, k);
                b = k - g4_mul_255(255 - b, k);
                c = k - g4_mul_255(255 - c, k);
            }
            dst[0] = (uint8_t)a;
            dst[1] = (uint8_t)b;
            dst[2] = (uint8_t)c;
        }
    }
    g4_free(j->m->a, rows);
    return G4_OK;
}

/* All segments up to the end of the picture. */
static g4_status g4_jpeg_segments(g4_jpeg *j, g4_error *err)
{
    for (;;) {
        int code = g4_jpeg_marker(j);
        if (code < 0) return g4_fail(err, G4_ERR_FORMAT, "JPEG: truncated: no end marker in %zu bytes", j->size);
        if (code == 0xd9) return G4_OK;
        if (code == 0x01 || (code >= 0xd0 && code <= 0xd8)) continue; /* these have no length */
        size_t n = j->size - j->at >= 2 ? g4_be16(j->data + j->at) : 0;
        if (n < 2 || n > j->size - j->at)
            return g4_fail(err, G4_ERR_FORMAT, "JPEG: truncated in segment 0x%02x at byte %zu of %zu", code, j->at,
                           j->size);
        const uint8_t *p = j->data + j->at + 2;
        j->at += n;
        n -= 2;
        g4_status s = G4_OK;
        if (code == 0xc4) {
            s = g4_jpeg_tables(j, p, n, err);
        } else if (code == 0xdb) {
            s = g4_jpeg_quant(j, p, n, err);
        } else if (code >= 0xc0 && code <= 0xc2) {
            j->progressive = code == 0xc2;
            s = g4_jpeg_frame(j, p, n, err);
        } else if (code >= 0xc3 && code <= 0xcf) {
            s = g4_fail(err, G4_ERR_UNSUPPORTED,
                        "JPEG: frame type 0x%02x (lossless, hierarchical or arithmetic) cannot be read", code);
        } else if (code == 0xdd) {
            if (n != 2) return g4_fail(err, G4_ERR_FORMAT, "JPEG: restart interval of %zu bytes, expected 2", n);
            j->restart = g4_be16(p);
        } else if (code == 0xe0 && n >= 5 && !memcmp(p, "JFIF", 5)) {
            j->has_jfif = 1;
        } else if (code == 0xe1 && n >= 6 && !memcmp(p, "Exif\0", 6) && j->orientation == 0) {
            j->orientation = g4_exif_orientation(p + 6, n - 6);
        } else if (code == 0xee && n >= 12 && !memcmp(p, "Adobe", 5)) {
            j->adobe = p[11];
        } else if (code == 0xda) {
            s = g4_jpeg_scan_header(j, p, n, err);
            if (!s) s = g4_jpeg_scan(j, err);
        }
        if (s) return s;
    }
}

static g4_status g4_jpeg_decode(const g4_media *m, const uint8_t *data, size_t size, uint8_t **pixels, int *w, int *h,
                                g4_error *err)
{
    g4_jpeg j = { 0 };
    j.m = m;
    j.data = data;
    j.size = size;
    j.at = 2;
    j.adobe = -1;
    *pixels = NULL;
    j.huff = g4_alloc(m->a, 8, sizeof *j.huff);
    g4_status s = j.huff ? g4_jpeg_segments(&j, err) : g4_fail(err, G4_ERR_MEMORY, "JPEG: out of memory");
    if (!s && !j.n_comps) s = g4_fail(err, G4_ERR_FORMAT, "JPEG: no picture in it");
    for (int i = 0; !s && i < j.n_comps; i++) {
        g4_jpeg_comp *c = &j.comp[i];
        if (!c->seen) s = g4_fail(err, G4_ERR_FORMAT, "JPEG: component %d is in no scan", i);
        for (int by = 0; !s && j.progressive && by < c->blocks_h; by++) {
            for (int bx = 0; bx < c->blocks_w; bx++) {
                size_t stride = (size_t)c->stored_w * 8;
                const int16_t *b = c->coef + 64 * ((size_t)by * (size_t)c->stored_w + (size_t)bx);
                g4_jpeg_idct(b, c->quant, 0, c->plane + (size_t)by * 8 * stride + (size_t)bx * 8, stride);
            }
        }
    }
    if (!s) s = g4_pixels_alloc(m, "JPEG", (uint64_t)j.w, (uint64_t)j.h, pixels, err);
    if (!s) s = g4_jpeg_output(&j, *pixels, err);
    *w = j.w;
    *h = j.h;
    if (!s) s = g4_orient(m, pixels, w, h, j.orientation, err);
    for (int i = 0; i < 4; i++) {
        g4_free(m->a, j.comp[i].plane);
        g4_free(m->a, j.comp[i].coef);
    }
    g4_free(m->a, j.huff);
    if (s) {
        g4_free(m->a, *pixels);
        *pixels = NULL;
    }
    return s;
}

/* ---- 6. PPM, PGM, PBM, PAM ---------------------------------------------------------------------------
 *
 * In: Netpbm files P1 to P7, the first picture of each. Out: RGB, samples scaled to round(v / maxval * 255) as Pillow
 * does (halves to even), alpha of PAM over white. */

typedef struct {
    const uint8_t *data;
    size_t size, at;
} g4_pnm;

/* Skip blanks and # comments, then read a decimal number of at most 9 digits; -1: none. */
static int64_t g4_pnm_number(g4_pnm *p, int max_digits)
{
    while (p->at < p->size) {
        uint8_t c = p->data[p->at];
        if (c == '#') {
            while (p->at < p->size && p->data[p->at] != '\n' && p->data[p->at] != '\r') p->at++;
        } else if (c == ' ' || (c >= 9 && c <= 13)) {
            p->at++;
        } else {
            break;
        }
    }
    int64_t v = 0;
    int digits = 0;
    for (; p->at < p->size && p->data[p->at] >= '0' && p->data[p->at] <= '9' && digits < max_digits; digits++)
        v = 10 * v + (p->data[p->at++] - '0');
    return digits ? v : -1;
}

/* Fields of a PAM header: lines "NAME value" up to ENDHDR. */
static g4_status g4_pam_header(g4_pnm *p, int64_t field[4], g4_error *err)
{
    static const char *const names[4] = { "WIDTH", "HEIGHT", "DEPTH", "MAXVAL" };
    p->at = 3;
    while (p->at < p->size) {
        const uint8_t *line = p->data + p->at, *nl = memchr(line, '\n', p->size - p->at);
        if (!nl) break;
        size_t n = (size_t)(nl - line);
        if (n == 6 && !memcmp(line, "ENDHDR", 6)) {
            p->at += n + 1;
            return G4_OK;
        }
        for (int i = 0; i < 4; i++) {
            size_t k = strlen(names[i]);
            if (n > k && !memcmp(line, names[i], k) && line[k] == ' ') {
                g4_pnm value = { line + k, n - k, 0 };
                field[i] = g4_pnm_number(&value, 9);
            }
        }
        p->at += n + 1;
    }
    return g4_fail(err, G4_ERR_FORMAT, "PAM: truncated: no ENDHDR in %zu bytes", p->size);
}

static g4_status g4_pnm_decode(const g4_media *m, const uint8_t *data, size_t size, uint8_t **pixels, int *w, int *h,
                               g4_error *err)
{
    g4_pnm p = { data, size, 2 };
    int kind = data[1] - '0', bitmap = kind == 1 || kind == 4;
    int64_t f[4] = { -1, -1, kind == 3 || kind == 6 ? 3 : 1, 1 }; /* width, height, channels, maxval */
    *pixels = NULL;
    if (kind == 7) {
        g4_status s = g4_pam_header(&p, f, err);
        if (s) return s;
    } else {
        f[0] = g4_pnm_number(&p, 9);
        f[1] = g4_pnm_number(&p, 9);
        if (!bitmap) f[3] = g4_pnm_number(&p, 9);
        if (p.at >= size) return g4_fail(err, G4_ERR_FORMAT, "PNM: truncated header of %zu bytes", size);
        p.at++; /* exactly one blank before the pixels */
    }
    if (f[0] < 1 || f[1] < 1 || f[2] < 1 || f[2] > 4 || f[3] < 1 || f[3] > 65535)
        return g4_fail(err, G4_ERR_FORMAT,
                       "PNM: width %lld, height %lld, channels %lld, maxval %lld: expected 1.., 1.., 1..4, 1..65535",
                       (long long)f[0], (long long)f[1], (long long)f[2], (long long)f[3]);
    uint64_t pw = (uint64_t)f[0], ph = (uint64_t)f[1], channels = (uint64_t)f[2],
             wide = f[3] > 255 ? 2 : 1; /* < 10^9 each */
    uint64_t need = kind == 4   ? ph * ((pw + 7) / 8)
                    : kind == 1 ? ph * pw
                    : kind <= 3 ? ph * pw * channels * 2 - 1
                                : ph * pw * channels * wide;
    if (need > size - p.at)
        return g4_fail(err, G4_ERR_FORMAT,
                       "PNM: truncated: %" PRIu64 " x %" PRIu64 " pixels need %" PRIu64 " bytes, found %zu", pw, ph,
                       need, size - p.at);
    g4_status s = g4_pixels_alloc(m, "PNM", pw, ph, pixels, err);
    uint8_t *lut = s ? NULL : g4_alloc(m->a, 65536, 1);
    if (!s && !lut) s = g4_fail(err, G4_ERR_MEMORY, "PNM: out of memory");
    if (s || !lut) {
        g4_free(m->a, *pixels);
        *pixels = NULL;
        return s;
    }
    for (int64_t v = 0; v < 65536; v++) lut[v] = v >= f[3] ? 255 : (uint8_t)rint((double)v / (double)f[3] * 255);
    if (bitmap) {
        lut[0] = 255; /* 1 is black */
        lut[1] = 0;
    }
    uint8_t *d = *pixels;
    const uint8_t *q = data + p.at;
    for (uint64_t y = 0; !s && y < ph; y++) {
        for (uint64_t x = 0; !s && x < pw; x++, d += 3) {
            uint8_t v[4] = { 0 };
            for (uint64_t c = 0; c < channels; c++) {
                int64_t sample;
                if (kind == 4) {
                    sample = q[x >> 3] >> (7 - (x & 7)) & 1;
                } else if (kind <= 3) {
                    sample = g4_pnm_number(&p, kind == 1 ? 1 : 5);
                    if (sample < 0 || sample > f[3]) {
                        s = g4_fail(err, G4_ERR_FORMAT, "PNM: byte %zu: expected a sample of 0 to %lld", p.at,
                                    (long long)f[3]);
                        break;
                    }
                } else {
                    sample = wide == 2 ? (int64_t)g4_be16(q) : *q;
                    q += wide;
                }
                v[c] = lut[sample];
            }
            uint8_t alpha = channels == 2 ? v[1] : channels == 4 ? v[3] : 255;
            for (uint64_t c = 0; c < 3; c++) d[c] = g4_over_white(v[channels >= 3 ? c : 0], alpha);
        }
        if (kind == 4) q += (pw + 7) / 8;
    }
    g4_free(m->a, lut);
    if (s) {
        g4_free(m->a, *pixels);
        *pixels = NULL;
        return s;
    }
    *w = (int)pw;
    *h = (int)ph;
    return G4_OK;
}

/* ---- 7. WAV and resampling -------------------------------------------------------------------------------
 *
 * In: RIFF WAVE with integer PCM of 8, 16, 24 or 32 bits or float of 32 or 64, any rate from 1 to 768 kHz, any number
 * of channels. Out: 16 kHz mono float: integers divided by 2^(bits - 1), channels averaged, then resampled. Other
 * codings go to ffmpeg. */

#define G4_RATE 16000
#define G4_SINC_ZEROS 64     /* zero crossings of the filter on each side */
#define G4_SINC_CUTOFF 0.947 /* of the lower Nyquist frequency: the transition band ends there or just beyond it */
#define G4_SINC_BETA 10.0    /* Kaiser window: side lobes about 100 dB down */

static double g4_bessel_i0(double x) /* modified Bessel function of order 0, by its series */
{
    double sum = 1, term = 1;
    for (int k = 1; term > 1e-17 * sum; k++) {
        term *= x / 2 / k * (x / 2 / k);
        sum += term;
    }
    return sum;
}

static uint64_t g4_gcd(uint64_t a, uint64_t b) /* b > 0 */
{
    uint64_t r = a % b;
    return r ? g4_gcd(b, r) : b;
}

/* y[n] = sum_k x[k] h(n * rate / 16000 - k), h a Kaiser-windowed sinc at 0.947 of the lower Nyquist frequency. With
 * 16000 / rate = L / M in lowest terms, output n has phase n * M mod L; each phase's coefficients are made once and
 * scaled to sum 1. Takes x (n_in) and frees it. */
static g4_status g4_resample(const g4_media *m, float *x, uint64_t n_in, uint32_t rate, g4_audio *out, g4_error *err)
{
    uint64_t g = g4_gcd(G4_RATE, rate), up = G4_RATE / g, down = rate / g;
    uint64_t n_out = (n_in * up + down - 1) / down; /* n_in < 2^34, up <= 16000 */
    if (rate == G4_RATE) {
        out->samples = x;
        out->n_samples = (size_t)n_in;
        return G4_OK;
    }
    double cutoff = G4_SINC_CUTOFF *
                    (rate > G4_RATE ? (double)G4_RATE / rate : 1.0); /* of the input's Nyquist frequency */
    int half = (int)ceil(G4_SINC_ZEROS / cutoff), taps = 2 * half, padded = (taps + 7) & ~7;
    float *y = g4_alloc(m->a, (size_t)n_out, sizeof *y), *h = g4_alloc(m->a, (size_t)padded, sizeof *h);
    if (!y || !h) {
        g4_free(m->a, x);
        g4_free(m->a, y);
        g4_free(m->a, h);
        return g4_fail(err, G4_ERR_MEMORY, "resampling to %" PRIu64 " samples: out of memory", n_out);
    }
    double scale = 1.0 / g4_bessel_i0(G4_SINC_BETA);
    for (uint64_t first = 0; first < up && first < n_out; first++) {
        double frac = (double)(first * down % up) / (double)up, sum = 0;
        for (int pass = 0; pass < 2; pass++) { /* the sum, then the coefficients */
            for (int i = 0; i < taps; i++) {
                double t = (i - half + 1 - frac) * cutoff, u = (i - half + 1 - frac) / half, v = 0;
                if (u * u < 1)
                    v = (t == 0 ? 1 : sin(3.14159265358979323846 * t) / (3.14159265358979323846 * t)) *
                        g4_bessel_i0(G4_SINC_BETA * sqrt(1 - u * u)) * scale;
                if (pass == 0)
                    sum += v;
                else
                    h[i] = (float)(v / sum);
            }
        }
        for (uint64_t n = first; n < n_out; n += up) {
            int64_t start = (int64_t)(n * down / up) - half + 1;
            float acc[8] = { 0 }; /* eight sums side by side: the compiler may keep them in vectors */
            if (start >= 0 && (uint64_t)start + (uint64_t)padded <= n_in) {
                const float *p = x + start;
                for (int i = 0; i < padded; i += 8) {
                    for (int k = 0; k < 8; k++) acc[k] += p[i + k] * h[i + k];
                }
            } else {
                for (int i = 0; i < taps; i++) {
                    int64_t k = start + i;
                    if (k >= 0 && (uint64_t)k < n_in) acc[i & 7] += x[k] * h[i];
                }
            }
            y[n] = ((acc[0] + acc[4]) + (acc[1] + acc[5])) + ((acc[2] + acc[6]) + (acc[3] + acc[7]));
        }
    }
    g4_free(m->a, x);
    g4_free(m->a, h);
    out->samples = y;
    out->n_samples = (size_t)n_out;
    return G4_OK;
}

typedef struct {
    uint32_t tag, channels, rate, bytes;
} g4_wav_format; /* bytes: of one sample of one channel */

static g4_status g4_wav_fmt(g4_wav_format *f, const uint8_t *p, size_t n, int *foreign, g4_error *err)
{
    static const uint8_t guid[14] = {
        0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71
    }; /* KSDATAFORMAT_SUBTYPE_..., less its tag */
    if (n < 16) return g4_fail(err, G4_ERR_FORMAT, "WAV: fmt chunk of %zu bytes, expected 16 or more", n);
    f->tag = g4_le16(p);
    f->channels = g4_le16(p + 2);
    f->rate = g4_le32(p + 4);
    uint32_t align = g4_le16(p + 12), bits = g4_le16(p + 14);
    if (f->tag == 0xfffe && n >= 40 && !memcmp(p + 26, guid, 14)) f->tag = g4_le16(p + 24); /* WAVE_FORMAT_EXTENSIBLE */
    if (f->tag != 1 && f->tag != 3) {
        *foreign = 1;
        return g4_fail(err, G4_ERR_UNSUPPORTED, "WAV: coding 0x%04x, expected integer (1) or float (3)",
                       (unsigned)f->tag);
    }
    if (f->channels == 0 || align % f->channels != 0)
        return g4_fail(err, G4_ERR_FORMAT, "WAV: %u bytes for %u channels", (unsigned)align, (unsigned)f->channels);
    f->bytes = align / f->channels;
    if (bits == 0 || bits > 8 * f->bytes ||
        (f->tag == 1 ? f->bytes < 1 || f->bytes > 4 : f->bytes != 4 && f->bytes != 8))
        return g4_fail(err, G4_ERR_UNSUPPORTED,
                       "WAV: %u bits in %u bytes: expected integers of 1 to 4 bytes or floats of 4 or 8",
                       (unsigned)bits, (unsigned)f->bytes);
    if (f->rate < 1000 || f->rate > 768000)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "WAV: %u samples a second, expected 1000 to 768000", (unsigned)f->rate);
    return G4_OK;
}

static double g4_wav_sample(const g4_wav_format *f, const uint8_t *p)
{
    if (f->tag == 3) {
        union {
            uint32_t u;
            float v;
        } a;
        union {
            uint64_t u;
            double v;
        } b;
        a.u = g4_le32(p);
        if (f->bytes == 4) return (double)a.v;
        b.u = (uint64_t)g4_le32(p + 4) << 32 | g4_le32(p);
        return b.v;
    }
    if (f->bytes == 1) return (p[0] - 128) / 128.0; /* the only unsigned one */
    uint32_t v = 0;
    for (uint32_t i = 0; i < f->bytes; i++)
        v |= (uint32_t)p[i] << (32 - 8 * (f->bytes - i)); /* to the top of 32 bits */
    return (int32_t)v / 2147483648.0;
}

static float g4_wav_mono(const g4_wav_format *f, const uint8_t *frame) /* the mean of the channels */
{
    double sum = 0;
    for (uint32_t c = 0; c < f->channels; c++) sum += g4_wav_sample(f, frame + (size_t)c * f->bytes);
    return (float)(sum / f->channels);
}

/* *foreign is set when the file is sound that ffmpeg may be able to read. */
static g4_status g4_wav_decode(const g4_media *m, const uint8_t *data, size_t size, g4_audio *out, int *foreign,
                               g4_error *err)
{
    g4_wav_format f = { 0, 0, 0, 0 };
    size_t at = 12;
    for (;;) {
        if (size - at < 8)
            return g4_fail(err, G4_ERR_FORMAT, "WAV: truncated: no %s chunk in %zu bytes", f.tag ? "data" : "fmt",
                           size);
        const uint8_t *name = data + at;
        uint64_t n = g4_le32(data + at + 4);
        at += 8;
        if (!memcmp(name, "data", 4) && f.bytes && f.channels) {
            if (n == 0xffffffffu) n = size - at; /* written to a pipe: the length was not known */
            if (n > size - at)
                return g4_fail(err, G4_ERR_FORMAT, "WAV: truncated: data of %" PRIu64 " bytes, found %zu", n,
                               size - at);
            uint64_t frame = (uint64_t)f.bytes * f.channels, n_in = n / frame;
            if (n_in > m->max_samples * (uint64_t)f.rate / G4_RATE)
                return g4_fail(err, G4_ERR_UNSUPPORTED,
                               "WAV: %" PRIu64 " samples at %u Hz are more than the limit of %" PRIu64 " at 16 kHz",
                               n_in, (unsigned)f.rate, m->max_samples);
            if (n_in == 0) return g4_fail(err, G4_ERR_FORMAT, "WAV: no samples");
            float *x = g4_alloc(m->a, (size_t)n_in, sizeof *x);
            if (!x) return g4_fail(err, G4_ERR_MEMORY, "WAV: %" PRIu64 " samples: out of memory", n_in);
            for (uint64_t i = 0; i < n_in; i++) {
                x[i] = g4_wav_mono(&f, data + at + i * frame);
                if (!isfinite(x[i])) {
                    g4_free(m->a, x);
                    return g4_fail(err, G4_ERR_FORMAT, "WAV: sample %" PRIu64 " is not a finite number", i);
                }
            }
            return g4_resample(m, x, n_in, f.rate, out, err);
        }
        if (n > size - at)
            return g4_fail(err, G4_ERR_FORMAT, "WAV: truncated in the chunk at byte %zu of %zu", at - 8, size);
        if (!memcmp(name, "fmt ", 4)) {
            g4_status s = g4_wav_fmt(&f, data + at, (size_t)n, foreign, err);
            if (s) return s;
        }
        at += (size_t)n;
        if (n & 1 && at < size) at++; /* chunks are padded to even lengths */
    }
}

/* ---- 8. y4m ------------------------------------------------------------------------------------------------
 *
 * In: YUV4MPEG2 of 8 bits, 4:2:0, 4:2:2, 4:4:4, 4:1:1 or mono, from memory or a seekable file. Out: the sampled frames
 * as RGB. Chroma samples are repeated, not interpolated. BT.601, limited range (Y 16..235, U and V 16..240), each level
 * rounded to nearest: R = 255/219 (Y - 16) + 1.402 * 255/224 (V - 128) G = 255/219 (Y - 16) - (0.344136 (U - 128) +
 * 0.714136 (V - 128)) * 255/224 B = 255/219 (Y - 16) + 1.772 * 255/224 (U - 128) with 16 fraction bits;
 * XCOLORRANGE=FULL: Y as it is, 255/219 and 255/224 left out. Without a frame rate, 24 is assumed, as the reference
 * does. */

typedef struct {
    const uint8_t *data; /* NULL: read f */
    FILE *f;
    uint64_t size, at;
} g4_source;

static int g4_source_read(g4_source *s, void *out, size_t n) /* nonzero: fewer are left */
{
    if (n > s->size - s->at) return 1;
    if (s->data)
        memcpy(out, s->data + s->at, n);
    else if (fread(out, 1, n, s->f) != n)
        return 1;
    s->at += n;
    return 0;
}
static int g4_source_seek(g4_source *s, uint64_t at)
{
    if (at > s->size || (!s->data && fseeko(s->f, (off_t)at, SEEK_SET) != 0)) return 1;
    s->at = at;
    return 0;
}
/* Text up to a newline, which is dropped. Nonzero: none in cap - 1 bytes. */
static int g4_source_line(g4_source *s, char *out, size_t cap)
{
    for (size_t n = 0; n + 1 < cap; n++) {
        if (g4_source_read(s, out + n, 1)) return 1;
        if (out[n] == '\n') {
            out[n] = 0;
            return 0;
        }
    }
    return 1;
}

/* i * total / n for the i-th of n sampled frames; how many are sampled (transformers, video_utils / video_processing:
 * sample_frames). */
static int64_t g4_frame_index(int64_t i, int64_t total, int64_t n) { return i * total / n; }
static g4_status g4_frame_count(const g4_media *m, int64_t total, double fps, int *n, g4_error *err)
{
    int64_t want = m->n_frames;
    if (m->fps > 0) {
        double v = (double)total / fps * m->fps;
        want = v > 1e9 ? 1000000000 : (int64_t)v;
        if (want < 1) want = 1;
    }
    if (want < 1)
        return g4_fail(err, G4_ERR_ARGUMENT, "video: %lld frames asked for, expected 1 or more", (long long)want);
    if (want > total) want = total;
    if (want > m->max_frames)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "video: %lld frames to keep are more than the limit of %d",
                       (long long)want, m->max_frames);
    *n = (int)want;
    return G4_OK;
}

/* Room for n frames and their times. */
static g4_status g4_video_alloc(const g4_media *m, int n, g4_video *out, g4_error *err)
{
    g4_image *frames = g4_alloc(m->a, (size_t)n, sizeof *frames);
    double *seconds = g4_alloc(m->a, (size_t)n, sizeof *seconds);
    out->frames = frames;
    out->seconds = seconds;
    return frames && seconds ? G4_OK : g4_fail(err, G4_ERR_MEMORY, "video: %d frames: out of memory", n);
}

static void g4_video_clear(const g4_media *m, g4_video *v)
{
    for (int i = 0; i < v->n_frames; i++)
        g4_free(m->a, (void *)(uintptr_t)v->frames[i].pixels); /* ours, though the user sees const */
    g4_free(m->a, (void *)(uintptr_t)v->frames);
    g4_free(m->a, (void *)(uintptr_t)v->seconds);
    if (v->sound) g4_free(m->a, (void *)(uintptr_t)v->sound->samples);
    g4_free(m->a, (void *)(uintptr_t)v->sound);
    memset(v, 0, sizeof *v);
}

typedef struct {
    uint64_t w, h, cw, ch, frame_bytes; /* cw, ch: columns and rows of a chroma plane, 0 for mono */
    double fps;
    int full_range;
} g4_y4m;

/* The first line. *foreign: a kind of y4m that ffmpeg may read. */
static g4_status g4_y4m_header(g4_y4m *y, char *line, const g4_media *m, int *foreign, g4_error *err)
{
    const char *chroma = "420jpeg";
    y->fps = 24;
    for (char *p = line; *p;) {
        char *end = p + strcspn(p, " "), *next = *end ? end + 1 : end;
        *end = 0;
        g4_pnm num = { (const uint8_t *)p + 1, (size_t)(end - p) - (end > p), 0 };
        if (*p == 'W') y->w = (uint64_t)g4_pnm_number(&num, 9);
        if (*p == 'H') y->h = (uint64_t)g4_pnm_number(&num, 9);
        if (*p == 'F') {
            int64_t a = g4_pnm_number(&num, 9);
            num.at++; /* the colon */
            int64_t b = num.at < num.size ? g4_pnm_number(&num, 9) : -1;
            if (a > 0 && b > 0) y->fps = (double)a / (double)b;
        }
        if (*p == 'C') chroma = p + 1;
        if (!strcmp(p, "XCOLORRANGE=FULL")) y->full_range = 1;
        p = next;
    }
    if (y->w < 1 || y->h < 1 || y->w > INT32_MAX || y->h > INT32_MAX)
        return g4_fail(err, G4_ERR_FORMAT, "y4m: the header gives no size");
    if (y->w * y->h > m->max_pixels)
        return g4_fail(err, G4_ERR_UNSUPPORTED,
                       "y4m: %" PRIu64 " x %" PRIu64 " pixels are more than the limit of %" PRIu64, y->w, y->h,
                       m->max_pixels);
    if (!strcmp(chroma, "420jpeg") || !strcmp(chroma, "420mpeg2") || !strcmp(chroma, "420paldv") ||
        !strcmp(chroma, "420")) {
        y->cw = (y->w + 1) / 2;
        y->ch = (y->h + 1) / 2;
    } else if (!strcmp(chroma, "422")) {
        y->cw = (y->w + 1) / 2;
        y->ch = y->h;
    } else if (!strcmp(chroma, "444")) {
        y->cw = y->w;
        y->ch = y->h;
    } else if (!strcmp(chroma, "411")) {
        y->cw = (y->w + 3) / 4;
        y->ch = y->h;
    } else if (strcmp(chroma, "mono") != 0) {
        *foreign = 1;
        return g4_fail(err, G4_ERR_UNSUPPORTED, "y4m: colour format %.20s, expected 420, 422, 444, 411 or mono",
                       chroma);
    }
    y->frame_bytes = y->w * y->h + 2 * y->cw * y->ch;
    return G4_OK;
}

static void g4_y4m_rgb(const g4_y4m *y, const uint8_t *yuv, uint8_t *dst)
{
    const uint8_t *up = yuv + y->w * y->h, *vp = up + y->cw * y->ch;
    uint64_t sx = y->cw == 0 ? 1 : (y->w + y->cw - 1) / y->cw, sy = y->ch == 0 ? 1 : (y->h + y->ch - 1) / y->ch;
    int32_t black = y->full_range ? 0 : 16, ky = y->full_range ? 65536 : 76309, rv = y->full_range ? 91881 : 104597;
    int32_t gu = y->full_range ? 22553 : 25675, gv = y->full_range ? 46802 : 53279,
            bu = y->full_range ? 116130 : 132201;
    for (uint64_t r = 0; r < y->h; r++) {
        for (uint64_t c = 0; c < y->w; c++, dst += 3) {
            size_t k = (size_t)(r / sy * y->cw + c / sx);
            int32_t l = (*yuv++ - black) * ky + 32768, u = y->cw ? up[k] - 128 : 0, v = y->cw ? vp[k] - 128 : 0;
            dst[0] = g4_clamp_u8((l + rv * v) >> 16);
            dst[1] = g4_clamp_u8((l - gu * u - gv * v) >> 16);
            dst[2] = g4_clamp_u8((l + bu * u) >> 16);
        }
    }
}

static g4_status g4_y4m_frames(const g4_media *m, g4_source *src, g4_video *out, int *foreign, g4_error *err)
{
    char line[512];
    g4_y4m y = { 0, 0, 0, 0, 0, 0, 0 };
    if (g4_source_line(src, line, sizeof line)) return g4_fail(err, G4_ERR_FORMAT, "y4m: truncated in the first line");
    g4_status s = g4_y4m_header(&y, line + 9, m, foreign, err);
    if (s) return s;
    uint64_t start = src->at;
    int64_t total = 0;
    for (; src->at < src->size; total++) { /* first round: count and check */
        if (g4_source_line(src, line, sizeof line) || strncmp(line, "FRAME", 5) != 0)
            return g4_fail(err, G4_ERR_FORMAT, "y4m: byte %" PRIu64 ": expected FRAME and a newline for frame %lld",
                           src->at, (long long)total);
        if (g4_source_seek(src, src->at + y.frame_bytes))
            return g4_fail(err, G4_ERR_FORMAT, "y4m: truncated: frame %lld needs %" PRIu64 " bytes, found %" PRIu64,
                           (long long)total, y.frame_bytes, src->size - src->at);
    }
    if (total == 0) return g4_fail(err, G4_ERR_FORMAT, "y4m: no frames");
    int n = 0;
    s = g4_frame_count(m, total, y.fps, &n, err);
    if (!s) s = g4_video_alloc(m, n, out, err);
    uint8_t *yuv = s ? NULL : g4_alloc(m->a, (size_t)y.frame_bytes, 1);
    if (!s && !yuv) s = g4_fail(err, G4_ERR_MEMORY, "y4m: %" PRIu64 " bytes of a frame: out of memory", y.frame_bytes);
    if (!s && g4_source_seek(src, start)) s = g4_fail(err, G4_ERR_IO, "y4m: cannot go back to byte %" PRIu64, start);
    for (int64_t i = 0; !s && yuv && i < total && out->n_frames < n; i++) { /* second round: keep what is sampled */
        if (g4_source_line(src, line, sizeof line)) {
            s = g4_fail(err, G4_ERR_IO, "y4m: the file changed while it was read");
        } else if (i != g4_frame_index(out->n_frames, total, n)) {
            if (g4_source_seek(src, src->at + y.frame_bytes))
                s = g4_fail(err, G4_ERR_IO, "y4m: the file changed while it was read");
        } else {
            uint8_t *pixels = NULL;
            if (g4_source_read(src, yuv, (size_t)y.frame_bytes))
                s = g4_fail(err, G4_ERR_IO, "y4m: the file changed while it was read");
            if (!s) s = g4_pixels_alloc(m, "y4m", y.w, y.h, &pixels, err);
            if (s) break;
            g4_y4m_rgb(&y, yuv, pixels);
            ((g4_image *)(uintptr_t)out->frames)[out->n_frames] = (g4_image){ pixels, (int)y.w, (int)y.h, 0, 0 };
            ((double *)(uintptr_t)out->seconds)[out->n_frames++] = (double)i / y.fps;
        }
    }
    g4_free(m->a, yuv);
    return s;
}

/* ---- 9. The ffmpeg program -----------------------------------------------------------------------------------
 *
 * Whatever is not read above: started without a shell, its standard output read through a pipe while its messages are
 * drained from another, ended and reaped in every case. It may open files only, no network. */

typedef int (*g4_sink_fn)(void *ctx, const uint8_t *data, size_t n); /* nonzero: stop, no more is wanted */

typedef struct {
    const char *path; /* the file to read; NULL: fd */
    int fd;           /* an open file that becomes the program's standard input, or -1 */
} g4_input;

extern char **environ; /* the program runs in the environment of this process */

static void g4_close_pair(int p[2])
{
    for (int i = 0; i < 2; i++) {
        if (p[i] >= 0) close(p[i]);
        p[i] = -1;
    }
}

static int g4_pipe(int p[2])
{
    if (pipe(p) != 0) {
        p[0] = p[1] = -1;
        return 1;
    }
    return fcntl(p[0], F_SETFD, FD_CLOEXEC) == -1 || fcntl(p[1], F_SETFD, FD_CLOEXEC) == -1;
}

/* Start argv with out and err as its outputs and `in` (or nothing) as its input. Returns 0 or an errno. */
static int g4_spawn(pid_t *pid, const char *const *argv, int in, int out, int err)
{
    posix_spawn_file_actions_t fa;
    int rc = posix_spawn_file_actions_init(&fa);
    if (rc) return rc;
    rc = in >= 0 ? posix_spawn_file_actions_adddup2(&fa, in, 0)
                 : posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    if (!rc) rc = posix_spawn_file_actions_adddup2(&fa, out, 1);
    if (!rc) rc = posix_spawn_file_actions_adddup2(&fa, err, 2);
    if (!rc) rc = posix_spawnp(pid, argv[0], &fa, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    return rc;
}

/* Run the program on the input with args (NULL at the end) behind "-i input"; its output goes to sink. */
static g4_status g4_ffmpeg(const g4_media *m, const g4_input *in, const char *const *args, g4_sink_fn sink, void *ctx,
                           g4_error *err)
{
    if (!m->ffmpeg[0])
        return g4_fail(err, G4_ERR_UNSUPPORTED, "not PNG, JPEG, PPM, WAV or y4m, and no ffmpeg program may be started");
    const char *argv[48] = { m->ffmpeg, "-v", "error", "-nostdin", "-protocol_whitelist", "file", "-i", NULL };
    int n = 7, o[2] = { -1, -1 }, e[2] = { -1, -1 }, stopped = 0, status = 0, rc = 0, line_end = 0;
    char said[161] = "";
    size_t n_said = 0;
    g4_buf name = { m->a, NULL, 0, 0, 0 };
    g4_buf_str(&name, "file:");
    g4_buf_str(&name, in->path ? in->path : "/dev/fd/0");
    if (name.failed) {
        g4_buf_free(&name);
        return g4_fail(err, G4_ERR_MEMORY, "ffmpeg: out of memory");
    }
    argv[n++] = name.data;
    for (int i = 0; args[i] && n < 47; i++) argv[n++] = args[i];
    argv[n] = NULL;
    pid_t pid = -1;
    if (in->fd >= 0) lseek(in->fd, 0, SEEK_SET);
    if (g4_pipe(o) || g4_pipe(e))
        rc = errno;
    else
        rc = g4_spawn(&pid, argv, in->fd, o[1], e[1]);
    g4_buf_free(&name);
    if (rc) {
        g4_close_pair(o);
        g4_close_pair(e);
        return g4_fail(
            err, G4_ERR_UNSUPPORTED,
            "not PNG, JPEG, PPM, WAV or y4m, and the program \"%.60s\" for other formats could not be started: %s",
            m->ffmpeg, strerror(rc));
    }
    close(o[1]);
    close(e[1]);
    o[1] = e[1] = -1;
    struct pollfd p[2] = { { o[0], POLLIN, 0 }, { e[0], POLLIN, 0 } };
    while (!stopped && (p[0].fd >= 0 || p[1].fd >= 0)) {
        uint8_t chunk[65536];
        if (poll(p, 2, -1) < 0) {
            if (errno == EINTR) continue;
            break;
        }
        for (int i = 0; i < 2; i++) {
            if (p[i].fd < 0 || !p[i].revents) continue;
            ssize_t got = read(p[i].fd, chunk, sizeof chunk);
            if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
            if (got <= 0) {
                p[i].fd = -1; /* closed: poll skips it */
            } else if (i == 0) {
                if (sink(ctx, chunk, (size_t)got)) stopped = 1;
            } else {
                for (ssize_t k = 0; k < got && !line_end; k++) { /* its first line says most */
                    line_end = n_said > 0 && (chunk[k] == '\n' || chunk[k] == '\r');
                    if (chunk[k] >= 32 && chunk[k] < 127 && n_said + 1 < sizeof said) said[n_said++] = (char)chunk[k];
                }
                said[n_said] = 0;
            }
        }
    }
    g4_close_pair(o);
    g4_close_pair(e);
    if (stopped) kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (stopped || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) return G4_OK;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127 && !n_said)
        return g4_fail(
            err, G4_ERR_UNSUPPORTED,
            "not PNG, JPEG, PPM, WAV or y4m, and the program \"%.60s\" for other formats could not be started",
            m->ffmpeg);
    return g4_fail(err, G4_ERR_FORMAT, "%.40s cannot read it: %s", m->ffmpeg,
                   n_said ? said : "it ended without a message");
}

/* The same with args[0] filled in as the option that passes every frame once: its name changed between versions of the
 * program. */
static g4_status g4_ffmpeg_each(const g4_media *m, const g4_input *in, const char **args, g4_sink_fn sink, void *ctx,
                                g4_error *err)
{
    g4_error first = { G4_OK, "" };
    args[0] = "-fps_mode";
    g4_status s = g4_ffmpeg(m, in, args, sink, ctx, &first);
    if (s && strstr(first.message, "fps_mode")) {
        args[0] = "-vsync";
        return g4_ffmpeg(m, in, args, sink, ctx, err);
    }
    return s ? g4_fail(err, s, "%s", first.message) : G4_OK;
}

/* Output that is collected whole. */
typedef struct {
    const g4_media *m;
    uint8_t *data;
    size_t n, cap;
    uint64_t limit;
    g4_status status;
} g4_collect;

static int g4_collect_sink(void *ctx, const uint8_t *data, size_t n)
{
    g4_collect *c = ctx;
    if (n > c->limit - c->n) {
        c->status = G4_ERR_UNSUPPORTED;
        return 1;
    }
    if (n > c->cap - c->n) {
        size_t cap = c->cap < 1 << 20 ? 1 << 20 : 2 * c->cap; /* the limit is far below half the address space */
        uint8_t *more = g4_realloc(c->m->a, c->data, cap, 1);
        if (!more) {
            c->status = G4_ERR_MEMORY;
            return 1;
        }
        c->data = more;
        c->cap = cap;
    }
    memcpy(c->data + c->n, data, n);
    c->n += n;
    return 0;
}

static g4_status g4_ffmpeg_image(const g4_media *m, const g4_input *in, g4_image *out, g4_error *err)
{
    static const char *const args[] = { "-map",     "0:v:0", "-frames:v", "1",          "-c:v", "pam",
                                        "-pix_fmt", "rgba",  "-f",        "image2pipe", "-",    NULL };
    uint64_t limit = m->max_pixels < SIZE_MAX / 8 ? m->max_pixels * 4 + 256 : SIZE_MAX / 2;
    g4_collect c = { m, NULL, 0, 0, limit, G4_OK };
    uint8_t *pixels = NULL;
    int w = 0, h = 0;
    g4_status s = g4_ffmpeg(m, in, args, g4_collect_sink, &c, err);
    if (!s && c.status == G4_ERR_MEMORY)
        s = g4_fail(err, G4_ERR_MEMORY, "a picture of more than %zu bytes: out of memory", c.n);
    else if (!s && c.status)
        s = g4_fail(err, c.status, "the picture has more than the limit of %" PRIu64 " pixels", m->max_pixels);
    else if (!s && c.n < 3)
        s = g4_fail(err, G4_ERR_FORMAT, "%.40s found no picture in it", m->ffmpeg);
    if (!s) s = g4_pnm_decode(m, c.data, c.n, &pixels, &w, &h, err);
    g4_free(m->a, c.data);
    if (!s) *out = (g4_image){ pixels, w, h, 0, 0 };
    return s;
}

/* A WAV file that arrives in pieces: its channels are averaged on the way. */
typedef struct {
    const g4_media *m;
    uint8_t head[4096]; /* until the data chunk begins, then one frame that is not complete yet */
    size_t n_head;
    g4_wav_format f;
    size_t frame; /* bytes of one sample of all channels; 0: still in the header */
    float *x;
    size_t n, cap;
    g4_error *err;
    g4_status status;
} g4_wav_stream;

static int g4_wav_stream_add(g4_wav_stream *w, const uint8_t *frame)
{
    if (w->n == w->cap) {
        uint64_t limit = w->m->max_samples * (uint64_t)w->f.rate / G4_RATE;
        if (w->n >= limit) {
            w->status = g4_fail(w->err, G4_ERR_UNSUPPORTED,
                                "the sound has more than the limit of %" PRIu64 " samples at 16 kHz",
                                w->m->max_samples);
            return 1;
        }
        uint64_t cap = w->cap ? 2 * (uint64_t)w->cap : 1 << 18;
        if (cap > limit) cap = limit;
        float *more = cap > SIZE_MAX / 4 ? NULL : g4_realloc(w->m->a, w->x, (size_t)cap, sizeof *more);
        if (!more) {
            w->status = g4_fail(w->err, G4_ERR_MEMORY, "%" PRIu64 " samples: out of memory", cap);
            return 1;
        }
        w->x = more;
        w->cap = (size_t)cap;
    }
    w->x[w->n] = g4_wav_mono(&w->f, frame);
    if (!isfinite(w->x[w->n])) w->x[w->n] = 0; /* a decoder's slip */
    w->n++;
    return 0;
}

static int g4_wav_stream_sink(void *ctx, const uint8_t *data, size_t n)
{
    g4_wav_stream *w = ctx;
    while (w->frame == 0 && n > 0) { /* "RIFF....WAVE", then chunks: name, length, contents */
        if (w->n_head == sizeof w->head) {
            w->status = g4_fail(w->err, G4_ERR_FORMAT, "sound: no data in the first %zu bytes", sizeof w->head);
            return 1;
        }
        w->head[w->n_head++] = *data++;
        n--;
        size_t at = 12;
        while (at + 8 <= w->n_head && memcmp(w->head + at, "data", 4) != 0) {
            size_t k = g4_le32(w->head + at + 4);
            if (k > sizeof w->head || at + 8 + k > w->n_head) break;
            int foreign = 0;
            if (!memcmp(w->head + at, "fmt ", 4)) w->status = g4_wav_fmt(&w->f, w->head + at + 8, k, &foreign, w->err);
            if (w->status) return 1;
            at += 8 + k + (k & 1);
        }
        if (at + 8 == w->n_head && !memcmp(w->head + at, "data", 4) && w->f.tag) {
            w->frame = (size_t)w->f.bytes * w->f.channels;
            w->n_head = 0;
            if (w->frame > sizeof w->head)
                w->status = g4_fail(w->err, G4_ERR_UNSUPPORTED, "sound: %u channels", (unsigned)w->f.channels);
            if (w->status) return 1;
        }
    }
    while (n > 0) {
        if (w->n_head == 0 && n >= w->frame) {
            if (g4_wav_stream_add(w, data)) return 1;
            data += w->frame;
            n -= w->frame;
            continue;
        }
        w->head[w->n_head++] = *data++;
        n--;
        if (w->n_head == w->frame) {
            if (g4_wav_stream_add(w, w->head)) return 1;
            w->n_head = 0;
        }
    }
    return 0;
}

/* The first sound stream at its own rate and channels, so that downmix and resampling are the same as for WAV. */
static g4_status g4_ffmpeg_audio(const g4_media *m, const g4_input *in, g4_audio *out, g4_error *err)
{
    static const char *const args[] = { "-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "-", NULL };
    g4_wav_stream w = { .m = m, .err = err };
    g4_status s = g4_ffmpeg(m, in, args, g4_wav_stream_sink, &w, err);
    if (w.status) s = w.status;
    if (!s && w.n == 0) s = g4_fail(err, G4_ERR_FORMAT, "%.40s found no sound in it", m->ffmpeg);
    if (!s) return g4_resample(m, w.x, w.n, w.f.rate, out, err);
    g4_free(m->a, w.x);
    return s;
}

/* The frame list of a video as the framecrc muxer prints it: "#tb 0: 1/90000", "#media_type 1: audio", "stream, dts,
 * pts, duration, size, crc". */
typedef struct {
    char line[256];
    size_t n;
    int64_t frames, timed;                       /* of stream 0; timed: those with a time */
    double duration, first, last, last_duration; /* in units of its time base; duration: the sum */
    double tb;
    int has_sound;
} g4_probe;

static int g4_probe_sink(void *ctx, const uint8_t *data, size_t n)
{
    g4_probe *p = ctx;
    for (size_t i = 0; i < n; i++) {
        if (data[i] != '\n') {
            if (p->n + 1 < sizeof p->line) p->line[p->n++] = (char)data[i];
            continue;
        }
        p->line[p->n] = 0;
        p->n = 0;
        int stream = -1, num = 0, den = 0;
        long long dts = 0, pts = 0, duration = 0;
        if (sscanf(p->line, "#tb %d: %d/%d", &stream, &num, &den) == 3) {
            if (stream == 0 && num > 0 && den > 0) p->tb = (double)num / den;
        } else if (!strcmp(p->line, "#media_type 1: audio")) {
            p->has_sound = 1;
        } else if (sscanf(p->line, "%d, %lld, %lld, %lld,", &stream, &dts, &pts, &duration) == 4 && stream == 0) {
            double t = (double)pts, d = duration > 0 ? (double)duration : 0;
            p->duration += d;
            p->frames++;
            if (pts == INT64_MIN) continue;
            if (p->timed == 0 || t < p->first) p->first = t;
            if (p->timed == 0 || t > p->last) {
                p->last = t;
                p->last_duration = d;
            }
            p->timed++;
        }
    }
    return 0;
}

/* Average frames a second: frames / time, where the time is known to about two units of the time base. If a usual rate
 * (a whole number, or that times 1000 / 1001) lies within that error, it is what the file means: Matroska rounds 1/30 s
 * to 33 ms. */
static double g4_probe_fps(const g4_probe *p)
{
    double n = (double)p->frames, time = p->duration, slack = 0;
    if (p->timed == p->frames && p->last > p->first && n > 1) {
        time = p->last - p->first + (p->last_duration > 0 ? p->last_duration : (p->last - p->first) / (n - 1));
        slack = 2;
    }
    if (p->tb <= 0 || time <= 0) return 24; /* as the reference, when a file does not say */
    double low = n / ((time + slack) * p->tb), high = n / (fmax(time - slack, 0.5) * p->tb),
           whole = rint(n / (time * p->tb));
    if (whole >= 1 && whole >= low && whole <= high) return whole;
    whole = rint(n / (time * p->tb) * 1.001);
    if (whole >= 1 && whole / 1.001 >= low && whole / 1.001 <= high) return whole / 1.001;
    return n / (time * p->tb);
}

/* A row of PPM pictures, one a frame. */
typedef struct {
    const g4_media *m;
    g4_video *out;
    int want;
    char head[64];
    size_t n_head, have, need;
    uint8_t *pixels;
    g4_error *err;
    g4_status status;
} g4_frames;

static int g4_frames_sink(void *ctx, const uint8_t *data, size_t n)
{
    g4_frames *f = ctx;
    while (n > 0) {
        if (!f->pixels) { /* "P6\nwidth height\n255\n" */
            f->head[f->n_head++] = (char)*data++;
            n--;
            f->head[f->n_head] = 0;
            int w = 0, h = 0, max = 0, used = 0;
            if (f->head[f->n_head - 1] == '\n' && sscanf(f->head, "P6 %9d %9d %3d%n", &w, &h, &max, &used) == 3 &&
                used == (int)f->n_head - 1) {
                f->status = w > 0 && h > 0 && max == 255
                                ? g4_pixels_alloc(f->m, "video", (uint64_t)w, (uint64_t)h, &f->pixels, f->err)
                                : g4_fail(f->err, G4_ERR_FORMAT, "video: a frame of %d x %d", w, h);
                if (f->status) return 1;
                f->need = (size_t)w * (size_t)h * 3;
                f->have = f->n_head = 0;
                ((g4_image *)(uintptr_t)f->out->frames)[f->out->n_frames] = (g4_image){ NULL, w, h, 0, 0 };
            } else if (f->n_head + 1 == sizeof f->head) {
                f->status = g4_fail(f->err, G4_ERR_FORMAT, "video: frame %d does not start as expected",
                                    f->out->n_frames);
                return 1;
            }
            continue;
        }
        size_t k = f->need - f->have < n ? f->need - f->have : n;
        memcpy(f->pixels + f->have, data, k);
        f->have += k;
        data += k;
        n -= k;
        if (f->have == f->need) {
            ((g4_image *)(uintptr_t)f->out->frames)[f->out->n_frames++].pixels = f->pixels;
            f->pixels = NULL;
            if (f->out->n_frames == f->want) return 1;
        }
    }
    return 0;
}

/* One decoding pass that keeps the n sampled of `total` frames. Frame k is i * total / n for some i where a multiple of
 * total / n lies in [k, k + 1): where ceil(k * n / total) grows. */
static g4_status g4_ffmpeg_frames(const g4_media *m, const g4_input *in, int64_t total, int n, g4_video *out,
                                  g4_error *err)
{
    char select[160];
    snprintf(select, sizeof select, "select=gt(ceil((n+1)*%d/%lld)\\,ceil(n*%d/%lld))", n, (long long)total, n,
             (long long)total);
    g4_frames f = { .m = m, .out = out, .want = n, .err = err };
    const char *args[] = { NULL,  "passthrough", "-map",  "0:V:0", "-vf",        select, "-c:v",
                           "ppm", "-pix_fmt",    "rgb24", "-f",    "image2pipe", "-",    NULL };
    g4_status s = g4_ffmpeg_each(m, in, args, g4_frames_sink, &f, err);
    g4_free(m->a, f.pixels);
    return f.status ? f.status : s;
}

static g4_status g4_ffmpeg_video(const g4_media *m, const g4_input *in, g4_video *out, g4_error *err)
{
    static const char *const packets[] = {
        "-map", "0:V:0", "-map", "0:a:0?", "-c", "copy", "-f", "framecrc", "-", NULL
    };
    const char *decoded[] = { NULL, "passthrough", "-map", "0:V:0", "-f", "framecrc", "-", NULL };
    g4_probe p = { .n = 0 };
    g4_status s = g4_ffmpeg(m, in, packets, g4_probe_sink, &p, err);
    int n = 0, has_sound = p.has_sound;
    double fps = g4_probe_fps(&p);
    for (int round = 0; !s && round < 2; round++) {
        if (p.frames == 0) s = g4_fail(err, G4_ERR_FORMAT, "%.40s found no video in it", m->ffmpeg);
        if (!s) s = g4_frame_count(m, p.frames, fps, &n, err);
        if (!s) s = g4_video_alloc(m, n, out, err);
        if (!s) s = g4_ffmpeg_frames(m, in, p.frames, n, out, err);
        if (s || out->n_frames == n) break;
        /* fewer frames than packets: count what decodes and sample again */
        if (round == 1) s = g4_fail(err, G4_ERR_FORMAT, "video: %d frames decoded, expected %d", out->n_frames, n);
        g4_video_clear(m, out);
        g4_probe again = { .n = 0 };
        if (!s) s = g4_ffmpeg_each(m, in, decoded, g4_probe_sink, &again, err);
        p = again;
    }
    for (int i = 0; !s && i < n; i++)
        ((double *)(uintptr_t)out->seconds)[i] = (double)g4_frame_index(i, p.frames, n) / fps;
    if (!s && m->want_sound && has_sound) {
        g4_audio *sound = g4_alloc(m->a, 1, sizeof *sound);
        out->sound = sound;
        s = sound ? g4_ffmpeg_audio(m, in, sound, err) : g4_fail(err, G4_ERR_MEMORY, "video: out of memory");
    }
    return s;
}

/* ---- 10. Loading --------------------------------------------------------------------------------------
 *
 * A load call reads the file and names it in front of the message of whatever failed inside. */

static g4_status g4_named(g4_error *err, const char *path, g4_status s)
{
    if (!s || !err) return s;
    g4_error inner = *err;
    size_t n = strlen(path), keep = 90; /* the end of a long path says more than its start */
    return g4_fail(err, s, "%s%s: %s", n > keep ? "..." : "", n > keep ? path + n - keep : path, inner.message);
}

/* The whole file, if it is one of ours: a regular file whose first bytes `ours` refuses is left unread (*out NULL), for
 * ffmpeg to open. */
static g4_status g4_file_read(const g4_media *m, const char *path, int (*ours)(const uint8_t *, size_t), uint8_t **out,
                              size_t *size, g4_error *err)
{
    *out = NULL;
    *size = 0;
    FILE *f = fopen(path, "rb");
    if (!f) return g4_fail(err, G4_ERR_IO, "cannot open: %s", strerror(errno));
    struct stat st;
    int known = fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode);
    uint8_t head[16];
    size_t n = fread(head, 1, sizeof head, f), cap = 65536;
    g4_status s = G4_OK;
    if (ferror(f))
        s = g4_fail(err, G4_ERR_IO, "cannot read: %s", strerror(errno));
    else if (n == 0)
        s = g4_fail(err, G4_ERR_FORMAT, "the file is empty");
    if (s || (known && !ours(head, n))) {
        fclose(f);
        return s;
    }
    if (known && (uint64_t)st.st_size > m->max_file_bytes)
        s = g4_fail(err, G4_ERR_UNSUPPORTED, "%lld bytes are more than the limit of %" PRIu64, (long long)st.st_size,
                    m->max_file_bytes);
    else if (known && st.st_size >= 16)
        cap = (size_t)st.st_size + 1;
    uint8_t *data = s ? NULL : g4_alloc(m->a, cap, 1);
    if (!s && !data) s = g4_fail(err, G4_ERR_MEMORY, "%zu bytes: out of memory", cap);
    if (data) memcpy(data, head, n);
    while (!s) {
        n += fread(data + n, 1, cap - n, f);
        if (n > m->max_file_bytes)
            s = g4_fail(err, G4_ERR_UNSUPPORTED, "more than the limit of %" PRIu64 " bytes", m->max_file_bytes);
        else if (ferror(f))
            s = g4_fail(err, G4_ERR_IO, "cannot read: %s", strerror(errno));
        if (s || n < cap) break; /* n == cap: there may be more */
        uint8_t *more = g4_realloc(m->a, data, cap, 2);
        if (!more)
            s = g4_fail(err, G4_ERR_MEMORY, "%zu bytes: out of memory", cap);
        else
            data = more;
        cap *= 2;
    }
    fclose(f);
    if (s) {
        g4_free(m->a, data);
        return s;
    }
    *out = data;
    *size = n;
    return G4_OK;
}

/* Put bytes into a nameless temporary file, which ffmpeg can seek in; NULL on failure. */
static FILE *g4_spill(const void *data, size_t size, g4_error *err)
{
    FILE *f = tmpfile();
    if (f && fwrite(data, 1, size, f) == size && fflush(f) == 0) return f;
    g4_fail(err, G4_ERR_IO, "cannot write %zu bytes to a temporary file: %s", size, strerror(errno));
    if (f) fclose(f);
    return NULL;
}

static int g4_is_png(const uint8_t *d, size_t n) { return n >= 8 && !memcmp(d, "\x89PNG\r\n\x1a\n", 8); }
static int g4_is_jpeg(const uint8_t *d, size_t n) { return n >= 3 && d[0] == 0xff && d[1] == 0xd8 && d[2] == 0xff; }
static int g4_is_pnm(const uint8_t *d, size_t n)
{
    return n >= 3 && d[0] == 'P' && d[1] >= '1' && d[1] <= '7' &&
           (d[2] == '#' || d[2] == ' ' || (d[2] >= 9 && d[2] <= 13));
}
static int g4_is_picture(const uint8_t *d, size_t n) { return g4_is_png(d, n) || g4_is_jpeg(d, n) || g4_is_pnm(d, n); }
static int g4_is_wav(const uint8_t *d, size_t n)
{
    return n >= 12 && !memcmp(d, "RIFF", 4) && !memcmp(d + 8, "WAVE", 4);
}
static int g4_is_y4m(const uint8_t *d, size_t n) { return n >= 10 && !memcmp(d, "YUV4MPEG2 ", 10); }

static g4_status g4_picture_bytes(const g4_media *m, const uint8_t *data, size_t size, g4_image *out, g4_error *err)
{
    uint8_t *pixels = NULL;
    int w = 0, h = 0;
    g4_status s = g4_is_png(data, size)    ? g4_png_decode(m, data, size, &pixels, &w, &h, err)
                  : g4_is_jpeg(data, size) ? g4_jpeg_decode(m, data, size, &pixels, &w, &h, err)
                                           : g4_pnm_decode(m, data, size, &pixels, &w, &h, err);
    if (!s) *out = (g4_image){ pixels, w, h, 0, 0 };
    return s;
}

/* Readers of one kind of medium: from memory, and by ffmpeg from a file or an open descriptor. */
static g4_status g4_image_bytes(const g4_media *m, const uint8_t *data, size_t size, g4_image *out, g4_error *err)
{
    if (g4_is_picture(data, size)) return g4_picture_bytes(m, data, size, out, err);
    FILE *f = g4_spill(data, size, err);
    if (!f) return G4_ERR_IO;
    g4_input in = { NULL, fileno(f) };
    g4_status s = g4_ffmpeg_image(m, &in, out, err);
    fclose(f);
    return s;
}

static g4_status g4_audio_bytes(const g4_media *m, const uint8_t *data, size_t size, g4_audio *out, g4_error *err)
{
    int foreign = 0;
    if (g4_is_wav(data, size)) {
        g4_status s = g4_wav_decode(m, data, size, out, &foreign, err);
        if (!foreign) return s;
    }
    FILE *f = g4_spill(data, size, err);
    if (!f) return G4_ERR_IO;
    g4_input in = { NULL, fileno(f) };
    g4_status s = g4_ffmpeg_audio(m, &in, out, err);
    fclose(f);
    return s;
}

static g4_status g4_video_bytes(const g4_media *m, const uint8_t *data, size_t size, g4_video *out, g4_error *err)
{
    int foreign = 0;
    g4_status s;
    if (g4_is_y4m(data, size)) {
        g4_source src = { data, NULL, size, 0 };
        s = g4_y4m_frames(m, &src, out, &foreign, err);
        if (!foreign) return s;
    }
    FILE *f = g4_spill(data, size, err);
    if (!f) return G4_ERR_IO;
    g4_input in = { NULL, fileno(f) };
    s = g4_ffmpeg_video(m, &in, out, err);
    fclose(f);
    return s;
}

G4_API g4_status g4_image_decode(g4_image *out, const void *data, size_t size, const g4_media_options *opt,
                                 g4_error *err)
{
    memset(out, 0, sizeof *out);
    if (!data || size == 0) return g4_fail(err, G4_ERR_ARGUMENT, "a picture of 0 bytes");
    g4_media m = g4_media_resolve(opt);
    return g4_image_bytes(&m, data, size, out, err);
}

G4_API g4_status g4_audio_decode(g4_audio *out, const void *data, size_t size, const g4_media_options *opt,
                                 g4_error *err)
{
    memset(out, 0, sizeof *out);
    if (!data || size == 0) return g4_fail(err, G4_ERR_ARGUMENT, "sound of 0 bytes");
    g4_media m = g4_media_resolve(opt);
    return g4_audio_bytes(&m, data, size, out, err);
}

G4_API g4_status g4_video_decode(g4_video *out, const void *data, size_t size, const g4_media_options *opt,
                                 g4_error *err)
{
    memset(out, 0, sizeof *out);
    if (!data || size == 0) return g4_fail(err, G4_ERR_ARGUMENT, "a video of 0 bytes");
    g4_media m = g4_media_resolve(opt);
    g4_status s = g4_video_bytes(&m, data, size, out, err);
    if (s) g4_video_clear(&m, out);
    return s;
}

G4_API g4_status g4_image_load(g4_image *out, const char *path, const g4_media_options *opt, g4_error *err)
{
    memset(out, 0, sizeof *out);
    if (!path) return g4_fail(err, G4_ERR_ARGUMENT, "path is NULL");
    g4_media m = g4_media_resolve(opt);
    g4_input in = { path, -1 };
    uint8_t *data;
    size_t size;
    g4_status s = g4_file_read(&m, path, g4_is_picture, &data, &size, err);
    if (!s) s = data ? g4_image_bytes(&m, data, size, out, err) : g4_ffmpeg_image(&m, &in, out, err);
    g4_free(m.a, data);
    return g4_named(err, path, s);
}

G4_API g4_status g4_audio_load(g4_audio *out, const char *path, const g4_media_options *opt, g4_error *err)
{
    memset(out, 0, sizeof *out);
    if (!path) return g4_fail(err, G4_ERR_ARGUMENT, "path is NULL");
    g4_media m = g4_media_resolve(opt);
    g4_input in = { path, -1 };
    uint8_t *data;
    size_t size;
    g4_status s = g4_file_read(&m, path, g4_is_wav, &data, &size, err);
    if (!s) s = data ? g4_audio_bytes(&m, data, size, out, err) : g4_ffmpeg_audio(&m, &in, out, err);
    g4_free(m.a, data);
    return g4_named(err, path, s);
}

static int g4_is_never(const uint8_t *d, size_t n)
{
    (void)d;
    (void)n;
    return 0;
}

G4_API g4_status g4_video_load(g4_video *out, const char *path, const g4_media_options *opt, g4_error *err)
{
    memset(out, 0, sizeof *out);
    if (!path) return g4_fail(err, G4_ERR_ARGUMENT, "path is NULL");
    g4_media m = g4_media_resolve(opt);
    g4_input in = { path, -1 };
    uint8_t *data, head[10];
    size_t size;
    int foreign = 0, is_y4m = 0;
    g4_status s = g4_file_read(&m, path, g4_is_never, &data, &size,
                               err); /* into memory only what cannot be opened twice */
    FILE *f = s || data ? NULL : fopen(path, "rb");
    struct stat st;
    if (f && fstat(fileno(f), &st) == 0 && fread(head, 1, sizeof head, f) == sizeof head &&
        g4_is_y4m(head, sizeof head)) {
        rewind(f);
        g4_source src = { NULL, f, (uint64_t)st.st_size, 0 };
        s = g4_y4m_frames(&m, &src, out, &foreign, err);
        is_y4m = !foreign;
    }
    if (f) fclose(f);
    if (foreign) s = G4_OK;
    if (!s && !is_y4m) s = data ? g4_video_bytes(&m, data, size, out, err) : g4_ffmpeg_video(&m, &in, out, err);
    g4_free(m.a, data);
    if (s) g4_video_clear(&m, out);
    return g4_named(err, path, s);
}

/* The caller reads what these point to, the library owns it. */
G4_API void g4_image_free(g4_image *image, const g4_media_options *opt)
{
    if (!image) return;
    g4_free(opt ? opt->allocator : NULL, (void *)(uintptr_t)image->pixels);
    memset(image, 0, sizeof *image);
}

G4_API void g4_audio_free(g4_audio *audio, const g4_media_options *opt)
{
    if (!audio) return;
    g4_free(opt ? opt->allocator : NULL, (void *)(uintptr_t)audio->samples);
    memset(audio, 0, sizeof *audio);
}

G4_API void g4_video_free(g4_video *video, const g4_media_options *opt)
{
    if (!video) return;
    g4_media m = g4_media_resolve(opt);
    g4_video_clear(&m, video);
}

/* ---- 11. Writing PNG, drawing boxes -------------------------------------------------------------------------
 *
 * The writer filters each row as makes its sum of magnitudes smallest and compresses with one candidate per hash and
 * dynamic codes: not the smallest files, but small code. */

typedef struct {
    g4_buf out;
    uint64_t bits;
    unsigned n_bits;
    uint32_t symbols[1 << 15]; /* of the block: a literal byte, or (distance - 1) << 16 | (length + 253) */
    int n_symbols;
    uint32_t lit_freq[286], dist_freq[30];
} g4_deflate;

static void g4_deflate_put(g4_deflate *d, uint32_t value, unsigned n)
{
    d->bits |= (uint64_t)value << d->n_bits;
    d->n_bits += n;
    while (d->n_bits >= 8) {
        char byte = (char)(d->bits & 255);
        g4_buf_add(&d->out, &byte, 1);
        d->bits >>= 8;
        d->n_bits -= 8;
    }
}

/* Huffman code lengths of at most `limit` bits for n <= 286 symbols; frequencies are halved until they fit. */
static void g4_code_lengths(const uint32_t *freq, int n, int limit, uint8_t *length)
{
    uint32_t weight[2 * 286];
    int parent[2 * 286], deepest, shift = 0;
    do {
        int nodes = n, open = 0;
        for (int i = 0; i < n; i++) {
            weight[i] = freq[i] ? (freq[i] >> shift) + 1 : 0;
            parent[i] = -1;
            open += weight[i] > 0;
        }
        for (; open > 1; open--) { /* join the two lightest; a joined node's weight becomes 0 */
            int a = -1, b = -1;
            for (int i = 0; i < nodes; i++) {
                if (weight[i] == 0) continue;
                if (a < 0 || weight[i] < weight[a]) {
                    b = a;
                    a = i;
                } else if (b < 0 || weight[i] < weight[b]) {
                    b = i;
                }
            }
            weight[nodes] = weight[a] + weight[b];
            weight[a] = weight[b] = 0;
            parent[a] = parent[b] = nodes;
            parent[nodes++] = -1;
        }
        deepest = 0;
        for (int i = 0; i < n; i++) {
            int l = 0;
            for (int k = i; parent[k] >= 0; k = parent[k]) l++;
            if (freq[i] && l == 0) l = 1; /* a single symbol still takes a bit */
            length[i] = (uint8_t)l;
            deepest = g4_max_int(deepest, l);
        }
        shift++;
    } while (deepest > limit);
}

/* Canonical codes, highest bit first as the stream wants them. */
static void g4_codes(const uint8_t *length, int n, uint16_t *code)
{
    uint32_t next = 0;
    for (unsigned l = 1; l < 16; l++, next <<= 1) {
        for (int i = 0; i < n; i++) {
            if (length[i] != l) continue;
            uint32_t r = 0;
            for (unsigned b = 0; b < l; b++) r |= (next >> b & 1u) << (l - 1 - b);
            code[i] = (uint16_t)r;
            next++;
        }
    }
}

/* The index, base and extra bits of a match length (3..258) or distance (1..32768), RFC 1951 3.2.5. */
static int g4_length_code(int n, int *base, unsigned *extra)
{
    if (n == 258) {
        *base = 258;
        *extra = 0;
        return 28;
    }
    int code = 0, b = 3;
    unsigned e = 0;
    while (n >= b + (1 << e)) {
        b += 1 << e;
        code++;
        e = code < 8 ? 0 : (unsigned)code / 4 - 1;
    }
    *base = b;
    *extra = e;
    return code;
}
static int g4_distance_code(int n, int *base, unsigned *extra)
{
    int code = 0, b = 1;
    unsigned e = 0;
    while (n >= b + (1 << e)) {
        b += 1 << e;
        code++;
        e = code < 4 ? 0 : (unsigned)code / 2 - 1;
    }
    *base = b;
    *extra = e;
    return code;
}

static void g4_deflate_block(g4_deflate *d, int final)
{
    static const uint8_t order[19] = { 16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15 };
    uint8_t length[286 + 30], small[19];
    uint16_t lit[286], dist[30], small_code[19];
    uint32_t small_freq[19] = { 0 };
    int base;
    unsigned extra;
    d->lit_freq[256]++;
    g4_code_lengths(d->lit_freq, 286, 15, length);
    g4_code_lengths(d->dist_freq, 30, 15, length + 286);
    g4_codes(length, 286, lit);
    g4_codes(length + 286, 30, dist);
    for (int i = 0; i < 316; i++) small_freq[length[i]]++;
    g4_code_lengths(small_freq, 19, 7, small);
    g4_codes(small, 19, small_code);
    g4_deflate_put(d, (uint32_t) final | 2u << 1, 3);
    g4_deflate_put(d, 286 - 257, 5);
    g4_deflate_put(d, 30 - 1, 5);
    g4_deflate_put(d, 19 - 4, 4);
    for (int i = 0; i < 19; i++) g4_deflate_put(d, small[order[i]], 3);
    for (int i = 0; i < 316; i++)
        g4_deflate_put(d, small_code[length[i]], small[length[i]]); /* without run lengths: 100 bytes a block */
    for (int i = 0; i < d->n_symbols; i++) {
        uint32_t s = d->symbols[i];
        int n = (int)(s & 0xffff), back = (int)(s >> 16);
        if (n < 256) {
            g4_deflate_put(d, lit[n], length[n]);
            continue;
        }
        int code = 257 + g4_length_code(n - 253, &base, &extra);
        g4_deflate_put(d, lit[code], length[code]);
        g4_deflate_put(d, (uint32_t)(n - 253 - base), extra);
        code = g4_distance_code(back + 1, &base, &extra);
        g4_deflate_put(d, dist[code], length[286 + code]);
        g4_deflate_put(d, (uint32_t)(back + 1 - base), extra);
    }
    g4_deflate_put(d, lit[256], length[256]);
    d->n_symbols = 0;
    memset(d->lit_freq, 0, sizeof d->lit_freq);
    memset(d->dist_freq, 0, sizeof d->dist_freq);
}

/* A zlib stream of raw (n) in d->out; check d->out.failed. */
static void g4_deflate_all(g4_deflate *d, uint32_t *last /* (65536), zero: position + 1 by hash */, const uint8_t *raw,
                           size_t n)
{
    int base;
    unsigned extra;
    g4_deflate_put(d, 0x0178, 16); /* deflate, window of 32 KiB; 0x7801 is a multiple of 31 */
    for (size_t i = 0; i < n;) {
        size_t match = 0, back = 0;
        if (n - i >= 4) {
            uint32_t hash = (g4_le32(raw + i) * 2654435761u) >> 16;
            size_t before = last[hash]; /* 0: none; pictures are far below 4 GiB */
            last[hash] = (uint32_t)(i + 1);
            if (before && i + 1 - before <= 32768) {
                back = i + 1 - before;
                size_t most = n - i < 258 ? n - i : 258;
                while (match < most && raw[i + match] == raw[i + match - back]) match++;
            }
        }
        if (match >= 4) {
            d->symbols[d->n_symbols++] = (uint32_t)(back - 1) << 16 | (uint32_t)(match + 253);
            d->lit_freq[257 + g4_length_code((int)match, &base, &extra)]++;
            d->dist_freq[g4_distance_code((int)back, &base, &extra)]++;
            i += match;
        } else {
            d->symbols[d->n_symbols++] = raw[i];
            d->lit_freq[raw[i++]]++;
        }
        if (d->n_symbols == 1 << 15) g4_deflate_block(d, 0);
    }
    g4_deflate_block(d, 1);
    g4_deflate_put(d, 0, (8 - d->n_bits) & 7);
    uint32_t sum = g4_adler32(raw, n);
    for (int i = 3; i >= 0; i--) g4_deflate_put(d, sum >> (8 * i) & 255, 8);
}

/* row and up (n bytes; up NULL above the first) -> dst (1 + n): the filter that makes the sum of magnitudes smallest.
 */
static void g4_png_filter(const uint8_t *row, const uint8_t *up, size_t n, uint8_t *dst)
{
    uint64_t best = UINT64_MAX;
    uint8_t chosen = 0;
    for (int pass = 0; pass < 6; pass++) { /* five filters are tried, then the best one written */
        uint8_t filter = pass < 5 ? (uint8_t)pass : chosen;
        uint64_t sum = 0;
        dst[0] = filter;
        for (size_t i = 0; i < n; i++) {
            int a = i < 3 ? 0 : row[i - 3], b = up ? up[i] : 0, c = up && i >= 3 ? up[i - 3] : 0, guess = 0;
            if (filter == 1) guess = a;
            if (filter == 2) guess = b;
            if (filter == 3) guess = (a + b) >> 1;
            if (filter == 4) {
                int pa = b > c ? b - c : c - b, pb = a > c ? a - c : c - a, pc = a + b - 2 * c;
                if (pc < 0) pc = -pc;
                guess = pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
            }
            uint8_t v = (uint8_t)(row[i] - guess);
            dst[1 + i] = v;
            sum += v < 128 ? v : 256u - v;
        }
        if (sum < best) {
            best = sum;
            chosen = filter;
        }
    }
}

static int g4_png_put(const uint32_t *crc, g4_write_fn write, void *user, const char *name, const uint8_t *data,
                      size_t n)
{
    uint8_t head[8], tail[4];
    memcpy(head + 4, name, 4);
    uint32_t sum = g4_crc(crc, g4_crc(crc, 0xffffffffu, head + 4, 4), data, n) ^ 0xffffffffu;
    for (int i = 0; i < 4; i++) {
        head[i] = (uint8_t)(n >> (24 - 8 * i));
        tail[i] = (uint8_t)(sum >> (24 - 8 * i));
    }
    return write(user, head, 8) || (n > 0 && write(user, data, n)) || write(user, tail, 4);
}

G4_API g4_status g4_png_write(const g4_image *image, g4_write_fn write, void *user, const g4_media_options *opt,
                              g4_error *err)
{
    g4_media m = g4_media_resolve(opt);
    if (!image || !image->pixels || image->width <= 0 || image->height <= 0 || !write)
        return g4_fail(err, G4_ERR_ARGUMENT, "PNG: nothing to write");
    size_t row = (size_t)image->width * 3, stride = image->stride ? image->stride : row, total;
    if (stride < row)
        return g4_fail(err, G4_ERR_ARGUMENT, "PNG: stride %zu is less than the %zu bytes of a row", stride, row);
    if (g4_mul_overflows(row + 1, (size_t)image->height, &total) || total > INT32_MAX / 2)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "PNG: %d x %d pixels are too many to write", image->width,
                       image->height);
    uint8_t *raw = g4_alloc(m.a, total, 1);
    uint32_t *last = g4_alloc(m.a, 65536, sizeof *last);
    g4_deflate *d = g4_alloc(m.a, 1, sizeof *d);
    g4_status s = G4_ERR_MEMORY;
    if (raw && last && d) {
        d->out.a = m.a;
        for (size_t y = 0; y < (size_t)image->height; y++) {
            const uint8_t *p = image->pixels + y * stride;
            g4_png_filter(p, y ? p - stride : NULL, row, raw + y * (row + 1));
        }
        g4_deflate_all(d, last, raw, total);
        if (!d->out.failed) s = G4_OK;
    }
    if (s) {
        g4_fail(err, s, "PNG: %d x %d pixels: out of memory", image->width, image->height);
    } else {
        uint32_t crc[256];
        uint8_t ihdr[13] = { 0, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0 }; /* 8 bits, RGB */
        for (int i = 0; i < 4; i++) {
            ihdr[i] = (uint8_t)(image->width >> (24 - 8 * i));
            ihdr[4 + i] = (uint8_t)(image->height >> (24 - 8 * i));
        }
        g4_crc_table(crc);
        if (write(user, "\x89PNG\r\n\x1a\n", 8) || g4_png_put(crc, write, user, "IHDR", ihdr, 13) ||
            g4_png_put(crc, write, user, "IDAT", (const uint8_t *)d->out.data, d->out.len) ||
            g4_png_put(crc, write, user, "IEND", ihdr, 0))
            s = g4_fail(err, G4_ERR_IO, "PNG: the write callback failed");
    }
    if (d) g4_buf_free(&d->out);
    g4_free(m.a, d);
    g4_free(m.a, last);
    g4_free(m.a, raw);
    return s;
}

/* Characters 32 to 95 in 7 rows of 5 bits, the left column highest. Small letters are drawn as capitals. */
static const uint8_t g4_font[64][7] = {
    { 0, 0, 0, 0, 0, 0, 0 },        { 4, 4, 4, 4, 4, 0, 4 },        { 10, 10, 0, 0, 0, 0, 0 },
    { 10, 10, 31, 10, 31, 10, 10 }, { 4, 15, 20, 14, 5, 30, 4 },    { 25, 25, 2, 4, 8, 19, 19 },
    { 12, 18, 18, 12, 21, 18, 13 }, { 4, 4, 0, 0, 0, 0, 0 },        { 2, 4, 8, 8, 8, 4, 2 },
    { 8, 4, 2, 2, 2, 4, 8 },        { 0, 21, 14, 31, 14, 21, 0 },   { 0, 4, 4, 31, 4, 4, 0 },
    { 0, 0, 0, 0, 4, 4, 8 },        { 0, 0, 0, 31, 0, 0, 0 },       { 0, 0, 0, 0, 0, 12, 12 },
    { 1, 1, 2, 4, 8, 16, 16 },      { 14, 17, 17, 21, 17, 17, 14 }, { 4, 12, 20, 4, 4, 4, 31 },
    { 14, 17, 1, 6, 8, 16, 31 },    { 30, 1, 1, 14, 1, 1, 30 },     { 18, 18, 18, 31, 2, 2, 2 },
    { 31, 16, 16, 30, 1, 1, 30 },   { 14, 16, 16, 30, 17, 17, 14 }, { 31, 1, 2, 2, 4, 4, 4 },
    { 14, 17, 17, 14, 17, 17, 14 }, { 14, 17, 17, 15, 1, 1, 14 },   { 0, 12, 12, 0, 12, 12, 0 },
    { 0, 4, 4, 0, 4, 4, 8 },        { 1, 6, 24, 16, 24, 6, 1 },     { 0, 0, 31, 0, 31, 0, 0 },
    { 16, 12, 3, 1, 3, 12, 16 },    { 14, 17, 1, 6, 4, 0, 4 },      { 14, 17, 23, 21, 23, 16, 14 },
    { 14, 17, 17, 31, 17, 17, 17 }, { 30, 17, 17, 30, 17, 17, 30 }, { 15, 16, 16, 16, 16, 16, 15 },
    { 28, 18, 17, 17, 17, 18, 28 }, { 31, 16, 16, 28, 16, 16, 31 }, { 31, 16, 16, 28, 16, 16, 16 },
    { 15, 16, 16, 19, 17, 17, 14 }, { 17, 17, 17, 31, 17, 17, 17 }, { 31, 4, 4, 4, 4, 4, 31 },
    { 7, 1, 1, 1, 1, 17, 14 },      { 17, 18, 20, 24, 20, 18, 17 }, { 16, 16, 16, 16, 16, 16, 31 },
    { 17, 27, 21, 21, 17, 17, 17 }, { 17, 25, 25, 21, 19, 19, 17 }, { 14, 17, 17, 17, 17, 17, 14 },
    { 30, 17, 17, 30, 16, 16, 16 }, { 14, 17, 17, 17, 21, 18, 13 }, { 30, 17, 17, 30, 20, 18, 17 },
    { 15, 16, 16, 14, 1, 1, 30 },   { 31, 4, 4, 4, 4, 4, 4 },       { 17, 17, 17, 17, 17, 17, 14 },
    { 17, 17, 17, 10, 10, 4, 4 },   { 17, 17, 17, 21, 21, 27, 17 }, { 17, 17, 10, 4, 10, 17, 17 },
    { 17, 17, 10, 4, 4, 4, 4 },     { 31, 1, 2, 4, 8, 16, 31 },     { 14, 8, 8, 8, 8, 8, 14 },
    { 16, 16, 8, 4, 2, 1, 1 },      { 14, 2, 2, 2, 2, 2, 14 },      { 4, 10, 17, 0, 0, 0, 0 },
    { 0, 0, 0, 0, 0, 0, 31 },
};

static void g4_fill(uint8_t *pixels, int width, int height, size_t stride, int64_t x0, int64_t y0, int64_t x1,
                    int64_t y1, const uint8_t rgb[3])
{
    for (int64_t y = y0 < 0 ? 0 : y0; y < y1 && y < height; y++) {
        for (int64_t x = x0 < 0 ? 0 : x0; x < x1 && x < width; x++)
            memcpy(pixels + (size_t)y * stride + 3 * (size_t)x, rgb, 3);
    }
}

G4_API void g4_draw_box(uint8_t *pixels, int width, int height, size_t stride, const int box[4], const char *label,
                        const uint8_t rgb[3])
{
    if (!pixels || width <= 0 || height <= 0) return;
    if (stride == 0) stride = (size_t)width * 3;
    int64_t x0 = box[0], y0 = box[1], x1 = box[2], y1 = box[3];
    int64_t line = g4_max_int(1, g4_min_int(width, height) / 240),
            dot = g4_max_int(1, g4_min_int(width, height) / 320); /* thickness grows with the picture */
    g4_fill(pixels, width, height, stride, x0, y0, x1, y0 + line < y1 ? y0 + line : y1, rgb);
    g4_fill(pixels, width, height, stride, x0, y1 - line > y0 ? y1 - line : y0, x1, y1, rgb);
    g4_fill(pixels, width, height, stride, x0, y0, x0 + line < x1 ? x0 + line : x1, y1, rgb);
    g4_fill(pixels, width, height, stride, x1 - line > x0 ? x1 - line : x0, y0, x1, y1, rgb);
    if (!label || !label[0]) return;
    int64_t n = 0, tall = 9 * dot;
    while (label[n] && n < 200) n++;
    int64_t wide = (6 * n + 1) * dot;
    int64_t tx = x0 + wide > width ? width - wide : x0,
            ty = y0 - tall >= 0 ? y0 - tall : y0; /* above the box, or inside at its top */
    if (tx < 0) tx = 0;
    if (ty < 0) ty = 0;
    const uint8_t dark[3] = { 0, 0, 0 }, light[3] = { 255, 255, 255 };
    const uint8_t *ink = 299 * rgb[0] + 587 * rgb[1] + 114 * rgb[2] > 128000 ? dark : light;
    g4_fill(pixels, width, height, stride, tx, ty, tx + wide, ty + tall, rgb);
    for (int64_t i = 0; i < n; i++) {
        int c = (unsigned char)label[i];
        if (c >= 'a' && c <= 'z') c -= 32;
        if (c < 32 || c > 95) c = '?';
        for (int y = 0; y < 7; y++) {
            for (int x = 0; x < 5; x++) {
                if (!(g4_font[c - 32][y] >> (4 - x) & 1)) continue;
                int64_t px = tx + (1 + 6 * i + x) * dot, py = ty + (1 + y) * dot;
                g4_fill(pixels, width, height, stride, px, py, px + dot, py + dot, ink);
            }
        }
    }
}
