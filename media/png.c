/* png.c - PNG (W3C, third edition): the first picture of a file as RGB over white, of every colour type, depth,
 * interlace and tRNS; and RGB pixels as a file. Up to the pixels, a damaged ancillary chunk is skipped, and a damaged
 * critical one is an error; the pixels are guarded by the checksum of their stream, and once they are complete, nothing
 * behind them matters but how to turn the picture. Gamma and colour profiles are not applied. All this as in Pillow. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>

/* ---- What reading and writing share --------------------------------------------------------- */

static const char g4_png_signature[8] = { '\x89', 'P', 'N', 'G', '\r', '\n', '\x1a', '\n' };

#define G4_PNG_FRAMING 12 /* bytes of a chunk around its data: length and name before, CRC behind */

/* Polynomial 0xedb88320, a byte at a time. */
static void g4_crc_table(uint32_t table[256])
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
        table[i] = c;
    }
}

/* Go on with a CRC, which begins as 0xffffffff and is inverted at its end. */
static uint32_t g4_crc(const uint32_t table[256], uint32_t crc, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) crc = table[(crc ^ p[i]) & 255] ^ crc >> 8;
    return crc;
}

/* Of the neighbours left a, above b and above left c the one next to a + b - c. */
static inline int g4_png_paeth(int a, int b, int c)
{
    int pa = b - c, pb = a - c, pc = pa + pb;
    if (pa < 0) pa = -pa;
    if (pb < 0) pb = -pb;
    if (pc < 0) pc = -pc;
    return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

/* ---- Chunks --------------------------------------------------------------------------------- */

enum { G4_PNG_COLOURS = 2, G4_PNG_ALPHA = 4, G4_PNG_PALETTE = 3 }; /* bits of a colour type; the type with a palette */

typedef struct {
    const uint8_t *name, *data;
    size_t n; /* bytes of data */
} g4_png_chunk;

typedef struct {
    const g4_media_limits *m;
    const uint8_t *data;
    size_t size;
    uint32_t w, h, depth, type, channels;
    int interlaced;
    g4_turn turn;
    g4_png_chunk plte, trns; /* name is NULL without one */
    uint8_t palette[256][3]; /* over white */
    int has_key;             /* tRNS of grey and RGB: this sample value is transparent */
    uint32_t key[3];
    size_t idat;         /* offset of the next chunk to read pixels from; 0: there is none */
    uint64_t idat_bytes; /* of the unbroken row of those chunks */
    int idat_done;
    uint32_t crc[256];
    g4_pace pace;
} g4_png;

static int g4_png_is(const g4_png_chunk *c, const char *name) { return memcmp(c->name, name, 4) == 0; }
static int g4_png_is_critical(const g4_png_chunk *c) { return !(c->name[0] & 32); } /* an upper-case letter */

/* The chunk at pos; 0 when the file ends inside it, but for pixels: they may still be complete. */
static int g4_png_chunk_at(const g4_png *g, size_t pos, g4_png_chunk *out)
{
    if (pos > g->size || g->size - pos < G4_PNG_FRAMING) return 0;
    out->n = g4_be32(g->data + pos);
    out->name = g->data + pos + 4;
    out->data = g->data + pos + 8;
    if (out->n <= g->size - pos - G4_PNG_FRAMING) return 1;
    out->n = g->size - pos - 8;
    return g4_png_is(out, "IDAT");
}

static int g4_png_crc_fits(g4_png *g, const g4_png_chunk *c)
{
    const size_t size = c->n + 4; /* the name counts */
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0, n; i < size; i += n) {
        n = g4_piece(size - i);
        crc = g4_crc(g->crc, crc, c->name + i, n);
        if (g4_pace_ends(&g->pace, n)) return 0;
    }
    return (crc ^ 0xffffffffu) == g4_be32(c->data + c->n);
}

static g4_status g4_png_header(g4_png *g, const g4_png_chunk *c, g4_error *err) /* IHDR */
{
    static const uint8_t channels[7] = { 1, 0, 3, 1, 2, 0, 4 }; /* by colour type */
    static const uint8_t depths[7] = { 1 | 2 | 4 | 8 | 16, 0, 8 | 16, 1 | 2 | 4 | 8, 8 | 16, 0, 8 | 16 };
    const uint8_t *d = c->data;
    if (c->n != 13) return g4_fail(err, G4_ERR_FORMAT, "PNG: header of %zu bytes, expected 13", c->n);
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

/* ---- Text in chunks -------------------------------------------------------------------------- */

#define G4_PNG_TEXT_MAX G4_XMP_MAX /* bytes of a text that are looked at */

/* A stream of one piece: ctx is the chunk. */
static int g4_png_text_piece(void *ctx, const uint8_t **p, const uint8_t **end)
{
    g4_png_chunk *c = ctx;
    *p = c->data;
    *end = c->data + c->n;
    c->data += c->n;
    c->n = 0;
    return *p < *end;
}

/* EXIF as ImageMagick writes it: three lines (an empty one, "exif", the length), then hexadecimal digits. The bytes
 * take the place of their digits. */
static void g4_png_raw_profile(g4_png *g, uint8_t *text, size_t n)
{
    size_t i = 0, digits = 0;
    for (int lines = 0; i < n && lines < 3; i++) lines += text[i] == '\n';
    for (; i < n; i++) {
        const uint8_t c = text[i], lower = c | 32;
        const int digit = c >= '0' && c <= '9' ? c - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
        if (digit < 0) continue;
        uint8_t *byte = text + digits++ / 2;
        *byte = (uint8_t)(*byte << 4 | digit);
    }
    g4_turn_by_exif(&g->turn, text, digits / 2);
}

/* The text of a chunk begins with its key and a NUL. That of iTXt goes on with: is it packed, how, language, NUL, the
 * key translated, NUL; that of zTXt with how it is packed. out becomes the rest; 0: it is cut short. */
static int g4_png_text_of(const g4_png_chunk *c, size_t key, g4_png_chunk *out, int *is_packed)
{
    const uint8_t *p = c->data + key + 1, *const end = c->data + c->n;
    *is_packed = g4_png_is(c, "zTXt");
    if (*is_packed) p++;
    if (g4_png_is(c, "iTXt")) {
        if (end - p < 2) return 0;
        *is_packed = *p;
        p += 2;
        for (int i = 0; i < 2 && p; i++) {
            p = memchr(p, 0, g4_min_size((size_t)(end - p), G4_PNG_TEXT_MAX));
            if (p) p++;
        }
    }
    if (!p || p > end) return 0;
    *out = (g4_png_chunk) { c->name, p, (size_t)(end - p) };
    return 1;
}

/* How to turn the picture, if a chunk of text says that. */
static g4_status g4_png_text(g4_png *g, const g4_png_chunk *c, g4_error *err)
{
    static const char exif[] = "Raw profile type exif", xmp[] = "XML:com.adobe.xmp";
    const int is_exif = c->n > sizeof exif && !memcmp(c->data, exif, sizeof exif);
    const int is_xmp = c->n > sizeof xmp && !memcmp(c->data, xmp, sizeof xmp);
    g4_png_chunk text;
    int is_packed;
    if (!is_exif && !is_xmp) return G4_OK;
    if (!g4_png_text_of(c, (is_exif ? sizeof exif : sizeof xmp) - 1, &text, &is_packed)) return G4_OK;
    size_t n = is_packed || text.n > G4_PNG_TEXT_MAX ? G4_PNG_TEXT_MAX : text.n;
    uint8_t *copy = g4_alloc(g->m->a, n + 1, 1);
    if (!copy) return g4_fail(err, G4_ERR_MEMORY, "PNG: a text of %zu bytes: out of memory", n);
    if (is_packed)
        g4_inflate(g4_png_text_piece, &text, copy, n, &n, g->pace.halt); /* what is there of a damaged one */
    else
        memcpy(copy, text.data, n);
    if (is_exif)
        g4_png_raw_profile(g, copy, n);
    else
        g4_turn_by_xmp(&g->turn, copy, n);
    g4_free(g->m->a, copy);
    g->pace.done += n;
    return G4_OK;
}

/* ---- All chunks ----------------------------------------------------------------------------- */

/* Take note of a chunk other than IHDR and IEND. */
static g4_status g4_png_note(g4_png *g, const g4_png_chunk *c, size_t pos, int intact, g4_error *err)
{
    if (g4_png_is(c, "IDAT")) {
        if (g->idat == 0) g->idat = pos;
        if (!g->idat_done) g->idat_bytes += c->n;
        return G4_OK;
    }
    g->idat_done = g->idat != 0;
    if (g4_png_is(c, "PLTE") && g->idat == 0) {
        g->plte = *c;
    } else if (intact && g4_png_is(c, "tRNS")) { /* behind the pixels, too */
        g->trns = *c;
    } else if (intact && g4_png_is(c, "eXIf")) {
        g4_turn_by_exif(&g->turn, c->data, c->n);
    } else if (intact && (g4_png_is(c, "tEXt") || g4_png_is(c, "zTXt") || g4_png_is(c, "iTXt"))) {
        return g4_png_text(g, c, err);
    }
    return G4_OK;
}

/* A critical chunk that has no place there, or is damaged. */
static g4_status g4_png_refuse(const g4_png_chunk *c, size_t pos, int intact, g4_error *err)
{
    if (g4_png_is(c, "CgBI"))
        return g4_fail(err, G4_ERR_UNSUPPORTED, "PNG: Xcode's form of it (CgBI), whose streams are bare, is not read");
    return intact ? g4_fail(err, G4_ERR_FORMAT, "PNG: IHDR must come first and once (byte %zu)", pos)
                  : g4_fail(err, G4_ERR_FORMAT, "PNG: the critical chunk at byte %zu does not match its checksum", pos);
}

static g4_status g4_png_chunks(g4_png *g, g4_error *err)
{
    g4_png_chunk c;
    for (size_t pos = sizeof g4_png_signature;; pos += G4_PNG_FRAMING + c.n) {
        if (!g4_png_chunk_at(g, pos, &c)) {
            if (g->idat) return G4_OK;
            return g4_fail(err, G4_ERR_FORMAT, "PNG: truncated in the chunk at byte %zu of %zu", pos, g->size);
        }
        const int has_head = g->channels > 0, is_head = g4_png_is(&c, "IHDR");
        const int intact = g4_png_is(&c, "IDAT") || g4_png_crc_fits(g, &c);
        if (g4_pace_ends(&g->pace, G4_PNG_FRAMING) || (!intact && g4_halted(g->pace.halt)))
            return g4_halt_check(g->pace.halt, err);
        const int is_wrong = g4_png_is_critical(&c) && (!intact || has_head == is_head);
        if (g->idat && (is_wrong || g4_png_is(&c, "IEND"))) return G4_OK;
        if (is_wrong) return g4_png_refuse(&c, pos, intact, err);
        if (g4_png_is(&c, "IEND")) return g4_fail(err, G4_ERR_FORMAT, "PNG: no IDAT chunk");
        const g4_status s = is_head ? g4_png_header(g, &c, err) : g4_png_note(g, &c, pos, intact, err);
        if (s) return s;
    }
}

/* PLTE and tRNS, once all chunks are known. A colour that is not there is black, as in Pillow, and so is one of which
 * only a part is there. */
static g4_status g4_png_colours(g4_png *g, g4_error *err)
{
    const g4_png_chunk *plte = &g->plte, *trns = &g->trns;
    const size_t n = plte->n / 3;
    if (g->type == G4_PNG_PALETTE) {
        if (n > 256) return g4_fail(err, G4_ERR_FORMAT, "PNG: palette of %zu bytes, expected 768 at most", plte->n);
        for (size_t i = 0; i < 256; i++) {
            const uint32_t alpha = i < trns->n ? trns->data[i] : 255;
            for (size_t c = 0; c < 3; c++) g->palette[i][c] = g4_over_white(i < n ? plte->data[3 * i + c] : 0, alpha);
        }
    } else if (trns->name && !(g->type & G4_PNG_ALPHA)) {
        const uint32_t colours = g->type & G4_PNG_COLOURS ? 3 : 1;
        if (trns->n < 2 * colours)
            return g4_fail(err, G4_ERR_FORMAT, "PNG: tRNS of %zu bytes, expected %u", trns->n, (unsigned)(2 * colours));
        g->has_key = 1;
        for (uint32_t c = 0; c < colours; c++) g->key[c] = g4_be16(trns->data + 2 * c) & ((1u << g->depth) - 1);
    }
    return G4_OK;
}

/* ---- Rows ----------------------------------------------------------------------------------- */

/* Undo the filter of bytes from..n of a row, whose upper neighbour is NULL for the first one. bpp: bytes back to the
 * pixel on the left. 0: there is no such filter. */
static int g4_png_unfilter(uint8_t filter, uint8_t *row, const uint8_t *above, size_t from, size_t n, size_t bpp)
{
    switch (filter) {
    case 0: return 1;
    case 1:
        for (size_t i = g4_max_size(from, bpp); i < n; i++) row[i] = (uint8_t)(row[i] + row[i - bpp]);
        return 1;
    case 2:
        for (size_t i = from; above && i < n; i++) row[i] = (uint8_t)(row[i] + above[i]);
        return 1;
    case 3:
        for (size_t i = from; i < n; i++) {
            const unsigned a = i < bpp ? 0 : row[i - bpp], b = above ? above[i] : 0;
            row[i] = (uint8_t)(row[i] + ((a + b) >> 1));
        }
        return 1;
    case 4:
        for (size_t i = from; i < n; i++) {
            const int a = i < bpp ? 0 : row[i - bpp], b = above ? above[i] : 0;
            row[i] = (uint8_t)(row[i] + g4_png_paeth(a, b, above && i >= bpp ? above[i - bpp] : 0));
        }
        return 1;
    default: return 0;
    }
}

/* n pixels of less than a byte, grey or of a palette, to RGB, `step` pixels apart. */
static void g4_png_unpack(const g4_png *g, const uint8_t *row, uint32_t n, uint8_t *dst, size_t step)
{
    const uint32_t max = (1u << g->depth) - 1, scale = 255 / max;
    for (uint32_t x = 0; x < n; x++, dst += 3 * step) {
        const uint32_t bit = x * g->depth, v = (uint32_t)row[bit >> 3] >> (8 - g->depth - (bit & 7)) & max;
        if (g->type == G4_PNG_PALETTE)
            memcpy(dst, g->palette[v], 3);
        else
            memset(dst, g->has_key && v == g->key[0] ? 255 : (int)(v * scale), 3);
    }
}

/* Is the pixel at p the one that tRNS makes transparent? */
static int g4_png_is_key(const g4_png *g, const uint8_t *p, uint32_t colours, uint32_t wide)
{
    for (uint32_t c = 0; c < colours; c++)
        if ((wide == 2 ? g4_be16(p + 2 * c) : p[c]) != g->key[c]) return 0;
    return 1;
}

/* n pixels of whole bytes to RGB over white, `step` pixels apart. Samples of 16 bits count with their high byte. */
static void g4_png_row(const g4_png *g, const uint8_t *row, uint32_t n, uint8_t *dst, size_t step)
{
    const uint32_t wide = g->depth == 16 ? 2 : 1, colours = g->type & G4_PNG_COLOURS ? 3 : 1;
    for (uint32_t x = 0; x < n; x++, dst += 3 * step) {
        const uint8_t *p = row + (size_t)x * g->channels * wide;
        if (g->type == G4_PNG_PALETTE) {
            memcpy(dst, g->palette[p[0]], 3);
            continue;
        }
        uint32_t alpha = g->type & G4_PNG_ALPHA ? p[colours * wide] : 255;
        if (g->has_key && g4_png_is_key(g, p, colours, wide)) alpha = 0;
        for (uint32_t c = 0; c < 3; c++) {
            const uint8_t v = p[colours == 3 ? c * wide : 0];
            dst[c] = alpha == 255 ? v : g4_over_white(v, alpha);
        }
    }
}

/* ---- Pixels --------------------------------------------------------------------------------- */

/* A pass over the picture: every dx-th column from x0 on, every dy-th row from y0 on. */
typedef struct {
    uint8_t x0, y0, dx, dy;
} g4_png_pass;
static const g4_png_pass g4_png_whole = { 0, 0, 1, 1 };
static const g4_png_pass g4_png_adam7[7] = { { 0, 0, 8, 8 }, { 4, 0, 8, 8 }, { 0, 4, 4, 8 }, { 2, 0, 4, 4 },
                                             { 0, 2, 2, 4 }, { 1, 0, 2, 2 }, { 0, 1, 1, 2 } };

static const g4_png_pass *g4_png_passes(const g4_png *g, int *n)
{
    *n = g->interlaced ? 7 : 1;
    return g->interlaced ? g4_png_adam7 : &g4_png_whole;
}

/* Columns and rows of a pass, and bytes of a row without its filter. A pass may be empty. */
static void g4_png_pass_size(const g4_png *g, const g4_png_pass *pass, uint32_t *w, uint32_t *h, size_t *row)
{
    *w = g->w > pass->x0 ? (g->w - pass->x0 + pass->dx - 1u) / pass->dx : 0;
    *h = g->h > pass->y0 ? (g->h - pass->y0 + pass->dy - 1u) / pass->dy : 0;
    *row = ((size_t)*w * g->depth * g->channels + 7) / 8;
}

/* Bytes of all rows with their filters; the pixel limit keeps this far from 2^64. */
static uint64_t g4_png_raw_size(const g4_png *g)
{
    int n;
    const g4_png_pass *passes = g4_png_passes(g, &n);
    uint64_t total = 0;
    for (int i = 0; i < n; i++) {
        uint32_t w, h;
        size_t row;
        g4_png_pass_size(g, &passes[i], &w, &h, &row);
        if (w && h) total += h * ((uint64_t)row + 1);
    }
    return total;
}

static int g4_png_next_idat(void *ctx, const uint8_t **p, const uint8_t **end)
{
    g4_png *g = ctx;
    g4_png_chunk c;
    if (g4_pace_ends(&g->pace, G4_PNG_FRAMING)) return 0;
    if (!g4_png_chunk_at(g, g->idat, &c) || !g4_png_is(&c, "IDAT")) return 0;
    *p = c.data;
    *end = c.data + c.n;
    g->idat += G4_PNG_FRAMING + c.n;
    return 1;
}

/* A row of w pixels in n bytes, behind the byte of its filter, into the picture, a piece at a time. above: that before,
 * without its filter; NULL: none. */
static g4_status g4_png_put_row(g4_png *g, uint8_t *raw, const uint8_t *above, uint32_t w, size_t n, uint8_t *dst,
                                size_t step, g4_error *err)
{
    const uint32_t bits = g->depth * g->channels; /* of a pixel; a piece is a whole number of bytes of any kind */
    const size_t bpp = bits < 8 ? 1 : bits / 8;
    for (uint32_t x = 0, count; x < w; x += count) {
        count = (uint32_t)g4_piece(w - x);
        const size_t from = (size_t)x * bits / 8, end = x + count == w ? n : (size_t)(x + count) * bits / 8;
        if (g4_pace_ends(&g->pace, end - from + count)) return g4_halt_check(g->pace.halt, err);
        if (!g4_png_unfilter(raw[0], raw + 1, above, from, end, bpp))
            return g4_fail(err, G4_ERR_FORMAT, "PNG: unknown filter, expected 0 to 4");
        if (g->depth < 8)
            g4_png_unpack(g, raw + 1 + from, count, dst + 3 * step * x, step);
        else
            g4_png_row(g, raw + 1 + from, count, dst + 3 * step * x, step);
    }
    return G4_OK;
}

/* Rows as they are unpacked: each goes into the picture once it is whole. */
typedef struct {
    g4_png *g;
    const g4_png_pass *passes;
    int n_passes, pass;
    uint32_t w, h, y; /* of the pass; the row that comes next */
    size_t n, have;   /* bytes of a row behind the byte of its filter; those that are there, with it */
    uint8_t *row, *above;
    int has_above;
    uint8_t *rgb;
    g4_error *err;
    g4_status status;
} g4_png_rows;

/* Go on with the next pass that has pixels. */
static void g4_png_next_pass(g4_png_rows *r)
{
    for (r->pass++; r->pass < r->n_passes; r->pass++) {
        g4_png_pass_size(r->g, &r->passes[r->pass], &r->w, &r->h, &r->n);
        if (r->w && r->h) break;
    }
    r->y = 0;
    r->has_above = 0;
}

/* The row is there. */
static void g4_png_end_row(g4_png_rows *r)
{
    const g4_png_pass *pass = &r->passes[r->pass];
    uint8_t *const row = r->row, *dst = r->rgb + 3 * ((size_t)(r->y * pass->dy + pass->y0) * r->g->w + pass->x0);
    r->status = g4_png_put_row(r->g, row, r->has_above ? r->above + 1 : NULL, r->w, r->n, dst, pass->dx, r->err);
    r->row = r->above;
    r->above = row;
    r->has_above = 1;
    r->have = 0;
    if (++r->y == r->h) g4_png_next_pass(r);
}

static int g4_png_drain(void *ctx, const uint8_t *data, size_t n)
{
    g4_png_rows *r = ctx;
    while (r->pass < r->n_passes && n > 0 && !r->status) {
        const size_t count = g4_min_size(n, r->n + 1 - r->have);
        memcpy(r->row + r->have, data, count);
        r->have += count;
        data += count;
        n -= count;
        if (r->have == r->n + 1) g4_png_end_row(r);
    }
    return r->pass < r->n_passes && !r->status ? 0 : n > 0 ? 2 : 1;
}

static g4_status g4_png_pixels(const g4_media_limits *m, g4_png *g, uint8_t *rgb, g4_error *err)
{
    const size_t row = ((size_t)g->w * g->depth * g->channels + 7) / 8 + 1;
    g4_png_rows r = { .g = g, .pass = -1, .rgb = rgb, .err = err };
    uint8_t *rows = g4_alloc(m->a, 2, row), *window = g4_alloc(m->a, G4_INFLATE_WINDOW, 1);
    r.passes = g4_png_passes(g, &r.n_passes);
    r.row = rows;
    if (rows) r.above = rows + row;
    g4_png_next_pass(&r);
    if (rows && window) {
        const char *wrong = g4_inflate_rows(g4_png_next_idat, g, window, g4_png_drain, &r, m->halt);
        if (!wrong && !r.status && r.pass < r.n_passes) wrong = "less data than the picture needs";
        if (wrong && !r.status) r.status = g4_halt_check(m->halt, err);
        if (wrong && !r.status)
            r.status = g4_fail(err, G4_ERR_FORMAT, "PNG: pixel data before byte %zu: %s", g->idat, wrong);
    } else {
        r.status = g4_fail(err, G4_ERR_MEMORY, "PNG: rows of %zu bytes: out of memory", row);
    }
    g4_free(m->a, rows);
    g4_free(m->a, window);
    return r.status;
}

/* All that comes before the pixels. */
static g4_status g4_png_open(const g4_media_limits *m, g4_png *g, const uint8_t *data, size_t size, g4_error *err)
{
    *g = (g4_png) { .m = m, .data = data, .size = size, .pace = { m->halt, 0 } };
    g4_crc_table(g->crc);
    g4_status s = g4_png_chunks(g, err);
    if (!s) s = g4_png_colours(g, err);
    if (!s) s = g4_pixels_check(m, "PNG", g->w, g->h, err);
    if (s) return s;
    /* Deflate cannot do better than 258 bytes for 2 bits: a file that cannot fill the memory does not get it. */
    if (g4_png_raw_size(g) / 1032 > g->idat_bytes)
        return g4_fail(err, G4_ERR_FORMAT, "PNG: truncated: %" PRIu64 " bytes of IDAT cannot hold %u x %u pixels",
                       g->idat_bytes, (unsigned)g->w, (unsigned)g->h);
    return g4_pixels_check_bytes(m, "PNG", g->w, g->h, g->idat_bytes, err);
}

g4_status g4_png_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, g4_error *err)
{
    g4_png g;
    const g4_status s = g4_png_open(m, &g, data, size, err);
    if (s) return s;
    g4_upright_size((int)g.w, (int)g.h, g4_orientation(&g.turn), w, h);
    return G4_OK;
}

g4_status g4_png_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, g4_error *err)
{
    g4_png g;
    memset(out, 0, sizeof *out);
    g4_status s = g4_png_open(m, &g, data, size, err);
    if (!s) s = g4_pixels_alloc(m, "PNG", g.w, g.h, out, err);
    if (!s) s = g4_png_pixels(m, &g, out->rgb, err);
    if (!s) s = g4_pixels_orient(m, out, g4_orientation(&g.turn), err);
    if (s) g4_pixels_free(m, out);
    return s;
}

/* ---- Writing -------------------------------------------------------------------------------- */

/* Bytes from..n of row and above (RGB; above is NULL for the first) with one filter -> dst (1 + n). Returns the sum of
 * magnitudes. */
static uint64_t g4_png_filter(uint8_t filter, const uint8_t *row, const uint8_t *above, size_t from, size_t n,
                              uint8_t *dst)
{
    uint64_t sum = 0;
    dst[0] = filter;
    for (size_t i = from; i < n; i++) {
        const int a = i < 3 ? 0 : row[i - 3], b = above ? above[i] : 0, c = above && i >= 3 ? above[i - 3] : 0;
        int guess = 0;
        if (filter == 1) guess = a;
        if (filter == 2) guess = b;
        if (filter == 3) guess = (a + b) >> 1;
        if (filter == 4) guess = g4_png_paeth(a, b, c);
        const uint8_t v = (uint8_t)(row[i] - guess);
        dst[1 + i] = v;
        sum += v < 128 ? v : 256u - v;
    }
    return sum;
}

/* The same for a row of n bytes with the filter that makes the sum smallest. Nonzero: halted. */
static int g4_png_filter_best(const uint8_t *row, const uint8_t *above, size_t n, uint8_t *dst, g4_pace *pace)
{
    enum { N_FILTERS = 5 };
    uint64_t smallest = UINT64_MAX;
    uint8_t best = 0;
    for (int pass = 0; pass <= N_FILTERS; pass++) { /* each of them, then the best */
        const uint8_t filter = pass < N_FILTERS ? (uint8_t)pass : best;
        uint64_t sum = 0;
        for (size_t from = 0, count; from < n; from += count) {
            count = g4_piece(n - from);
            sum += g4_png_filter(filter, row, above, from, from + count, dst);
            if (g4_pace_ends(pace, count)) return 1;
        }
        if (sum < smallest) {
            smallest = sum;
            best = filter;
        }
    }
    return 0;
}

static void g4_png_put_be32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* Where a file goes. */
typedef struct {
    g4_write_fn write;
    void *user;
    uint32_t crc[256];
    g4_halt *halt;
} g4_png_target;

/* Nonzero: the callback failed, or the call is halted. */
static int g4_png_put_chunk(const g4_png_target *t, const char *name, const uint8_t *data, size_t n)
{
    uint8_t head[8], tail[4];
    memcpy(head + 4, name, 4);
    g4_png_put_be32(head, (uint32_t)n);
    uint32_t crc = g4_crc(t->crc, 0xffffffffu, head + 4, 4);
    int ends = t->write(t->user, head, sizeof head);
    for (size_t i = 0, count; i < n && !ends; i += count) {
        count = g4_piece(n - i);
        crc = g4_crc(t->crc, crc, data + i, count);
        ends = g4_halted(t->halt) || t->write(t->user, data + i, count);
    }
    g4_png_put_be32(tail, crc ^ 0xffffffffu);
    return ends || t->write(t->user, tail, sizeof tail);
}

static int g4_png_put_file(g4_png_target *t, const g4_image *image, const g4_buf *packed)
{
    uint8_t header[13] = { 0, 0, 0, 0, 0, 0, 0, 0, 8, 2, 0, 0, 0 }; /* 8 bits, RGB */
    g4_png_put_be32(header, (uint32_t)image->width);
    g4_png_put_be32(header + 4, (uint32_t)image->height);
    g4_crc_table(t->crc);
    return t->write(t->user, g4_png_signature, sizeof g4_png_signature) ||
           g4_png_put_chunk(t, "IHDR", header, sizeof header) ||
           g4_png_put_chunk(t, "IDAT", (const uint8_t *)packed->data, packed->len) ||
           g4_png_put_chunk(t, "IEND", header, 0);
}

/* The filtered rows of a picture. Nonzero: halted. */
static int g4_png_filter_all(const g4_image *image, uint8_t *raw, g4_halt *halt)
{
    const size_t row = (size_t)image->width * 3, stride = g4_image_stride(image);
    g4_pace pace = { halt, 0 };
    for (size_t y = 0; y < (size_t)image->height; y++) {
        const uint8_t *p = image->pixels + y * stride;
        if (g4_png_filter_best(p, y ? p - stride : NULL, row, raw + y * (row + 1), &pace)) return 1;
    }
    return 0;
}

g4_status g4_png_write(const g4_image *image, g4_write_fn write, void *user, const g4_media_options *opt, g4_error *err)
{
    g4_media_limits m;
    g4_halt halt;
    if (!write) return g4_fail(err, G4_ERR_ARGUMENT, "write is NULL");
    g4_status s = g4_image_check(image, err);
    if (!s) s = g4_media_begin(&m, &halt, opt, err);
    if (s) return s;
    const size_t row = (size_t)image->width * 3;
    size_t total;
    if (g4_mul_overflows(row + 1, (size_t)image->height, &total) || total > INT32_MAX / 2)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "PNG: %d x %d pixels are too many to write", image->width,
                       image->height);
    g4_png_target target = { .write = write, .user = user, .halt = &halt };
    g4_buf packed = { .a = m.a, .cap = total + total / 8 + 4096 }; /* enough: it need not grow, which copies it */
    packed.data = g4_alloc(m.a, packed.cap, 1);
    uint8_t *raw = g4_alloc(m.a, total, 1);
    if (!raw || !packed.data)
        s = g4_fail(err, G4_ERR_MEMORY, "PNG: %d x %d pixels: out of memory", image->width, image->height);
    else if (g4_png_filter_all(image, raw, &halt) || g4_deflate(&m, raw, total, &packed))
        s = g4_halted(&halt) ? g4_halt_check(&halt, err)
                             : g4_fail(err, G4_ERR_MEMORY, "PNG: packing %zu bytes: out of memory", total);
    else if (g4_png_put_file(&target, image, &packed))
        s = g4_halted(&halt) ? g4_halt_check(&halt, err) : g4_fail(err, G4_ERR_IO, "PNG: the write callback failed");
    g4_buf_free(&packed);
    g4_free(m.a, raw);
    return s;
}
