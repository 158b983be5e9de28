/* sgi.c - pictures of Silicon Graphics: grey or RGB, with or without alpha, of 8 or 16 bits a channel, bare or as runs,
 * with Pillow's pixels: of 16 bits, the high byte counts. Channels follow each other, and rows go upwards. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#define G4_SGI_HEAD 512u

typedef struct {
    const uint8_t *data;
    size_t size;
    size_t w, h, channels, bytes; /* bytes: of a sample */
    int is_packed;
    uint8_t *line; /* (w, channels) the high byte of each sample of a row */
    g4_pace pace;
} g4_sgi;

static g4_status g4_sgi_open(const g4_media_limits *m, g4_sgi *p, const uint8_t *data, size_t size, g4_error *err)
{
    *p = (g4_sgi) { .data = data, .size = size, .pace = { m->halt, 0 } };
    if (size < G4_SGI_HEAD) return g4_fail(err, G4_ERR_FORMAT, "SGI: truncated head of %zu bytes", size);
    p->is_packed = data[2] == 1;
    p->bytes = data[3];
    p->w = g4_be16(data + 6);
    p->h = g4_be16(data + 8);
    p->channels = g4_be16(data + 10);
    if (data[2] > 1 || p->bytes < 1 || p->bytes > 2 || p->channels < 1 || p->channels > 4)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "SGI: coding %d, %zu channels of %zu bytes are not read", data[2],
                       p->channels, p->bytes);
    const g4_status s = g4_pixels_check(m, "SGI", p->w, p->h, err);
    if (s) return s;
    const uint64_t rows = (uint64_t)p->h * p->channels; /* packed ones have a place and a length each */
    if ((p->is_packed ? 8 * rows : rows * p->w * p->bytes) > size - G4_SGI_HEAD)
        return g4_fail(err, G4_ERR_FORMAT, "SGI: truncated: %zu x %zu pixels of %zu channels in %zu bytes", p->w, p->h,
                       p->channels, size);
    return g4_pixels_check_bytes(m, "SGI", p->w, p->h, size, err);
}

/* A row of a channel that is bare: number y from below. */
static void g4_sgi_bare(const g4_sgi *p, size_t y, size_t channel)
{
    const uint8_t *row = p->data + G4_SGI_HEAD + (channel * p->h + y) * p->w * p->bytes;
    for (size_t x = 0; x < p->w; x++) p->line[x * p->channels + channel] = row[x * p->bytes];
}

/* A row of runs: how many samples, and whether they are the same; 0 ends it. Nonzero: it does not fill the row. */
static int g4_sgi_runs(const g4_sgi *p, size_t y, size_t channel)
{
    const uint8_t *table = p->data + G4_SGI_HEAD + 4 * (channel * p->h + y);
    const size_t at = g4_be32(table);
    size_t x = 0, pos = at < p->size ? at : p->size;
    while (x < p->w && p->size - pos >= 2 * p->bytes) {
        const uint32_t word = p->data[pos + p->bytes - 1];
        const size_t n = word & 127, is_run = !(word & 128), used = (is_run ? 1 : n) * p->bytes;
        pos += p->bytes;
        if (n == 0 || n > p->w - x || used > p->size - pos) return 1;
        for (size_t i = 0; i < n; i++, x++)
            p->line[x * p->channels + channel] = p->data[pos + (is_run ? 0 : i * p->bytes)];
        pos += used;
    }
    return x < p->w;
}

static void g4_sgi_convert(const g4_sgi *p, uint8_t *rgb)
{
    const uint8_t *v = p->line;
    const size_t has_alpha = p->channels % 2 == 0 ? 1 : 0, is_grey = p->channels <= 2;
    for (size_t x = 0; x < p->w; x++, v += p->channels, rgb += 3)
        for (size_t c = 0; c < 3; c++) {
            const uint8_t level = v[is_grey ? 0 : c];
            rgb[c] = has_alpha ? g4_over_white(level, v[p->channels - 1]) : level;
        }
}

static g4_status g4_sgi_rows(g4_sgi *p, uint8_t *rgb, g4_error *err)
{
    for (size_t y = 0; y < p->h; y++) {
        for (size_t c = 0; c < p->channels; c++) {
            if (!p->is_packed)
                g4_sgi_bare(p, y, c);
            else if (g4_sgi_runs(p, y, c))
                return g4_fail(err, G4_ERR_FORMAT, "SGI: truncated: row %zu of channel %zu", y, c);
        }
        g4_sgi_convert(p, rgb + 3 * p->w * (p->h - 1 - y));
        if (g4_pace_ends(&p->pace, 4 * p->w * p->channels)) return g4_halt_check(p->pace.halt, err);
    }
    return G4_OK;
}

g4_status g4_sgi_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err)
{
    g4_sgi p;
    const g4_status s = g4_sgi_open(m, &p, data, size, err);
    if (s) return s;
    *w = (int)p.w;
    *h = (int)p.h;
    return G4_OK;
}

g4_status g4_sgi_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err)
{
    g4_sgi p;
    memset(out, 0, sizeof *out);
    g4_status s = g4_sgi_open(m, &p, data, size, err);
    if (!s) s = g4_pixels_alloc(m, "SGI", p.w, p.h, out, err);
    if (s) return s;
    p.line = g4_alloc(m->a, p.w, p.channels);
    s = p.line ? g4_sgi_rows(&p, out->rgb, err) : g4_fail(err, G4_ERR_MEMORY, "SGI: a row of %zu: out of memory", p.w);
    g4_free(m->a, p.line);
    if (s) g4_pixels_free(m, out);
    return s;
}
