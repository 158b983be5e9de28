/* pnm.c - Netpbm files P1 to P7 (PBM, PGM, PPM, PAM), the first picture of each, as RGB: samples scaled to
 * round(v / maxval * 255) as Pillow does, halves to even, and alpha of PAM over white. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>
#include <math.h>

enum { G4_PNM_BITMAP_TEXT = 1, G4_PNM_PIXMAP_TEXT = 3, G4_PNM_BITMAP = 4, G4_PNM_PIXMAP = 6, G4_PAM = 7 }; /* kinds */
#define G4_PNM_DIGITS 9 /* of a number in a header: it fits in 32 bits */

typedef struct {
    g4_reader in;
    int kind; /* the digit behind P */
    int64_t width, height, channels, maxval;
    uint8_t *level; /* (65536): the 8-bit level of each sample value */
    g4_pace pace;
} g4_pnm;

static int g4_pnm_is_bitmap(const g4_pnm *p) { return p->kind == G4_PNM_BITMAP_TEXT || p->kind == G4_PNM_BITMAP; }
static int g4_pnm_is_text(const g4_pnm *p) { return p->kind <= G4_PNM_PIXMAP_TEXT; }
static uint32_t g4_pnm_sample_bytes(const g4_pnm *p) { return p->maxval > 255 ? 2 : 1; }

/* ---- Headers -------------------------------------------------------------------------------- */

/* The next newline in a header, or NULL when there is none or the call is halted. */
static const uint8_t *g4_pam_newline(g4_pnm *p)
{
    const uint8_t *line = p->in.data + p->in.pos;
    for (size_t left = p->in.size - p->in.pos, n; left > 0; left -= n, line += n) {
        n = g4_piece(left);
        const uint8_t *newline = memchr(line, '\n', n);
        if (newline || g4_pace_ends(&p->pace, n)) return newline;
    }
    return NULL;
}

/* Lines "NAME value" up to ENDHDR. */
static g4_status g4_pam_header(g4_pnm *p, g4_error *err)
{
    const struct {
        const char *name;
        int64_t *value;
    } fields[4] = {
        { "WIDTH", &p->width }, { "HEIGHT", &p->height }, { "DEPTH", &p->channels }, { "MAXVAL", &p->maxval }
    };
    g4_reader *in = &p->in;
    in->pos = 3;
    while (in->pos < in->size) {
        const uint8_t *line = in->data + in->pos, *newline = g4_pam_newline(p);
        if (!newline || g4_pace_ends(&p->pace, (size_t)(newline - line) + 1)) break;
        const size_t n = (size_t)(newline - line);
        in->pos += n + 1;
        if (n == 6 && !memcmp(line, "ENDHDR", 6)) return G4_OK;
        for (int i = 0; i < 4; i++) {
            const size_t k = strlen(fields[i].name);
            if (n <= k || memcmp(line, fields[i].name, k) != 0 || line[k] != ' ') continue;
            g4_reader value = { line + k, n - k, 0, 0 };
            *fields[i].value = g4_scan_number(&value, G4_PNM_DIGITS, &p->pace);
        }
    }
    return g4_fail(err, G4_ERR_FORMAT, "PAM: truncated: no ENDHDR in %zu bytes", in->size);
}

static g4_status g4_pnm_header(g4_pnm *p, g4_error *err)
{
    p->width = p->height = -1;
    p->channels = p->kind == G4_PNM_PIXMAP_TEXT || p->kind == G4_PNM_PIXMAP ? 3 : 1;
    p->maxval = 1;
    if (p->kind == G4_PAM) {
        const g4_status s = g4_pam_header(p, err);
        if (s) return s;
    } else {
        p->width = g4_scan_number(&p->in, G4_PNM_DIGITS, &p->pace);
        p->height = g4_scan_number(&p->in, G4_PNM_DIGITS, &p->pace);
        if (!g4_pnm_is_bitmap(p)) p->maxval = g4_scan_number(&p->in, G4_PNM_DIGITS, &p->pace);
        if (p->in.pos >= p->in.size)
            return g4_fail(err, G4_ERR_FORMAT, "PNM: truncated header of %zu bytes", p->in.size);
        p->in.pos++; /* exactly one blank before the pixels */
    }
    if (p->width < 1 || p->height < 1 || p->channels < 1 || p->channels > 4 || p->maxval < 1 || p->maxval > 65535)
        return g4_fail(err, G4_ERR_FORMAT,
                       "PNM: width %" PRId64 ", height %" PRId64 ", channels %" PRId64 ", maxval %" PRId64
                       ": expected 1.., 1.., 1..4, 1..65535",
                       p->width, p->height, p->channels, p->maxval);
    return G4_OK;
}

/* Are there as many bytes as the pixels need at least? All numbers are below 10^9. */
static g4_status g4_pnm_check_size(const g4_pnm *p, g4_error *err)
{
    const uint64_t w = (uint64_t)p->width, h = (uint64_t)p->height, samples = h * w * (uint64_t)p->channels;
    const size_t found = p->in.size - p->in.pos;
    uint64_t need = samples * g4_pnm_sample_bytes(p);
    if (p->kind == G4_PNM_BITMAP_TEXT)
        need = samples; /* digits without blanks */
    else if (p->kind == G4_PNM_BITMAP)
        need = h * ((w + 7) / 8);
    else if (g4_pnm_is_text(p))
        need = samples * 2 - 1; /* digits with a blank between them */
    if (need > found)
        return g4_fail(err, G4_ERR_FORMAT,
                       "PNM: truncated: %" PRIu64 " x %" PRIu64 " pixels need %" PRIu64 " bytes, found %zu", w, h, need,
                       found);
    return G4_OK;
}

/* ---- Pixels --------------------------------------------------------------------------------- */

static void g4_pnm_levels(g4_pnm *p)
{
    for (int64_t v = 0; v < 65536; v++)
        p->level[v] = (uint8_t)(v >= p->maxval ? 255 : (int)rint((double)v / (double)p->maxval * 255));
    if (g4_pnm_is_bitmap(p)) {
        p->level[0] = 255; /* 1 is black */
        p->level[1] = 0;
    }
}

/* A pixel of that many channels, of levels v, over white. */
static inline void g4_pnm_pixel(const uint8_t v[4], int channels, uint8_t *dst)
{
    const uint8_t alpha = channels == 2 ? v[1] : channels == 4 ? v[3] : 255;
    for (int c = 0; c < 3; c++) dst[c] = g4_over_white(v[channels >= 3 ? c : 0], alpha);
}

/* Each of these reads the next n pixels of a row. */
static g4_status g4_pnm_text(g4_pnm *p, size_t n, uint8_t *dst, g4_error *err)
{
    const int channels = (int)p->channels, max_digits = g4_pnm_is_bitmap(p) ? 1 : 5;
    for (size_t x = 0; x < n; x++, dst += 3) {
        uint8_t v[4] = { 0 };
        for (int c = 0; c < 4 && c < channels; c++) {
            const int64_t sample = g4_scan_number(&p->in, max_digits, &p->pace);
            if (sample < 0 || sample > p->maxval)
                return g4_fail(err, G4_ERR_FORMAT, "PNM: byte %zu: expected a sample of 0 to %" PRId64, p->in.pos,
                               p->maxval);
            v[c] = p->level[sample];
        }
        g4_pnm_pixel(v, channels, dst);
    }
    return G4_OK;
}

static void g4_pnm_bits(g4_pnm *p, size_t n, uint8_t *dst)
{
    const uint8_t *row = p->in.data + p->in.pos;
    for (size_t x = 0; x < n; x++, dst += 3) memset(dst, p->level[row[x >> 3] >> (7 - (x & 7)) & 1], 3);
    p->in.pos += (n + 7) / 8;
}

static void g4_pnm_bytes(g4_pnm *p, size_t n, uint8_t *dst)
{
    const uint8_t *q = p->in.data + p->in.pos, *const level = p->level;
    const int channels = (int)p->channels, wide = (int)g4_pnm_sample_bytes(p);
    if (channels == 3 && p->maxval == 255) { /* these are what is asked for */
        memcpy(dst, q, 3 * n);
        p->in.pos += 3 * n;
        return;
    }
    for (size_t x = 0; x < n; x++, dst += 3) {
        uint8_t v[4] = { 0 };
        for (int c = 0; c < 4 && c < channels; c++, q += wide) v[c] = level[wide == 2 ? g4_be16(q) : *q];
        g4_pnm_pixel(v, channels, dst);
    }
    p->in.pos = (size_t)(q - p->in.data);
}

static g4_status g4_pnm_row(g4_pnm *p, uint8_t *dst, g4_error *err)
{
    g4_status s = G4_OK;
    const size_t width = (size_t)p->width;
    for (size_t x = 0, n; x < width && !s; x += n) {
        n = g4_piece(width - x); /* whole bytes of bits, but for the last */
        if (g4_pnm_is_text(p))
            s = g4_pnm_text(p, n, dst + 3 * x, err);
        else if (p->kind == G4_PNM_BITMAP)
            g4_pnm_bits(p, n, dst + 3 * x);
        else
            g4_pnm_bytes(p, n, dst + 3 * x);
        if (g4_pace_ends(&p->pace, n)) s = g4_halt_check(p->pace.halt, err);
    }
    return s;
}

/* All that comes before the pixels. */
static g4_status g4_pnm_open(const g4_media_limits *m, g4_pnm *p, const uint8_t *data, size_t size, g4_error *err)
{
    *p = (g4_pnm) { .in = { data, size, 2, 0 }, .kind = data[1] - '0', .pace = { m->halt, 0 } };
    g4_status s = g4_pnm_header(p, err);
    if (!s) s = g4_pnm_check_size(p, err);
    return s;
}

g4_status g4_pnm_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err)
{
    g4_pnm p;
    g4_status s = g4_pnm_open(m, &p, data, size, err);
    if (!s) s = g4_pixels_check(m, "PNM", (uint64_t)p.width, (uint64_t)p.height, err);
    if (s) return s;
    *w = (int)p.width;
    *h = (int)p.height;
    return G4_OK;
}

g4_status g4_pnm_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err)
{
    g4_pnm p;
    memset(out, 0, sizeof *out);
    g4_status s = g4_pnm_open(m, &p, data, size, err);
    if (!s) s = g4_pixels_alloc(m, "PNM", (uint64_t)p.width, (uint64_t)p.height, out, err);
    if (s) return s;
    p.level = g4_alloc(m->a, 65536, 1);
    if (p.level)
        g4_pnm_levels(&p);
    else
        s = g4_fail(err, G4_ERR_MEMORY, "PNM: out of memory");
    for (int64_t y = 0; !s && y < p.height; y++) s = g4_pnm_row(&p, out->rgb + 3 * (size_t)(y * p.width), err);
    g4_free(m->a, p.level);
    if (s) g4_pixels_free(m, out);
    return s;
}
