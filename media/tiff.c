/* tiff.c - TIFF 6.0 and BigTIFF: the first picture of a file, in strips or tiles, with samples together or in
 * planes, of 1 to 16 bits, 32-bit integers and floats, as grey, palette, RGB, CMYK, YCbCr and CIELAB, with
 * transparency; bare, PackBits, LZW, deflate, LZMA, JPEG, fax. Pixels are Pillow's, except that grey of 16 bits counts
 * with its high byte. What is coded otherwise (zstd) or is a raw picture of a camera is left to ffmpeg. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>
#include <math.h>

enum {
    G4_TIFF_RAW = 1,
    G4_TIFF_LZW = 5,
    G4_TIFF_OLD_JPEG,
    G4_TIFF_JPEG,
    G4_TIFF_DEFLATE,
    G4_TIFF_OLD_DEFLATE = 32946,
    G4_TIFF_PACKBITS = 32773,
    G4_TIFF_LZMA = 34925
}; /* compression */
enum {
    G4_TIFF_WHITE_IS_0,
    G4_TIFF_BLACK_IS_0,
    G4_TIFF_RGB,
    G4_TIFF_PALETTE,
    G4_TIFF_CMYK = 5,
    G4_TIFF_YCC,
    G4_TIFF_LAB = 8
};                                                             /* what samples mean */
enum { G4_TIFF_UNSIGNED = 1, G4_TIFF_SIGNED, G4_TIFF_FLOAT };  /* format of samples */
enum { G4_TIFF_OPAQUE, G4_TIFF_PREMULTIPLIED, G4_TIFF_ALPHA }; /* what the first extra sample means */
#define G4_TIFF_SAMPLES_MAX 8                                  /* of a pixel */

/* The tags that are read, in rising order. */
enum {
    G4_TAG_WIDTH,
    G4_TAG_HEIGHT,
    G4_TAG_BITS,
    G4_TAG_COMPRESSION,
    G4_TAG_MEANING,
    G4_TAG_FILL_ORDER,
    G4_TAG_STRIPS,
    G4_TAG_ORIENTATION,
    G4_TAG_SAMPLES,
    G4_TAG_ROWS,
    G4_TAG_STRIP_BYTES,
    G4_TAG_PLANAR,
    G4_TAG_FAX_OPTIONS,
    G4_TAG_PREDICTOR,
    G4_TAG_PALETTE,
    G4_TAG_TILE_WIDTH,
    G4_TAG_TILE_HEIGHT,
    G4_TAG_TILES,
    G4_TAG_TILE_BYTES,
    G4_TAG_EXTRA,
    G4_TAG_FORMAT,
    G4_TAG_JPEG_TABLES,
    G4_TAG_SUBSAMPLING,
    G4_TAG_XMP,
    G4_TAG_DNG,
    G4_TAGS
};
static const uint16_t g4_tiff_tags[G4_TAGS] = { 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284,  292,
                                                317, 320, 322, 323, 324, 325, 338, 339, 347, 530, 700, 50706 };

typedef struct {
    uint32_t type;
    uint64_t count;
    const uint8_t *at; /* its values; NULL: it is not there */
} g4_tiff_field;

typedef struct {
    const g4_media_limits *m;
    const uint8_t *data;
    size_t size;
    int big, is_long; /* highest byte first; BigTIFF */
    g4_tiff_field field[G4_TAGS];
    uint32_t w, h, bits, format, compression, meaning, predictor;
    uint32_t n_samples, n_colours, alpha;  /* samples of a pixel; those that are colours; what the next one means */
    uint32_t n_planes, unit_w, unit_h;     /* unit: pixels that share chroma */
    uint32_t tile_w, tile_h, across, down; /* strips are tiles as wide as the picture */
    int is_ycc_jpeg;                       /* YCbCr that its JPEG data turn into RGB */
    int is_tiled, is_reversed;             /* reversed: the first pixel in the lowest bit */
    uint8_t palette[256][3];
    uint8_t *buffer, *line; /* (n_planes, bytes of a tile); a row of pixels with their samples together */
    g4_fax *fax;
    g4_turn turn;
    g4_pace pace;
} g4_tiff;

/* ---- Tags ------------------------------------------------------------------------------------ */

static uint32_t g4_tiff_u16(const g4_tiff *t, const uint8_t *p) { return t->big ? g4_be16(p) : g4_le16(p); }
static uint32_t g4_tiff_u32(const g4_tiff *t, const uint8_t *p) { return t->big ? g4_be32(p) : g4_le32(p); }
static uint64_t g4_tiff_u64(const g4_tiff *t, const uint8_t *p)
{
    const uint64_t first = g4_tiff_u32(t, p), second = g4_tiff_u32(t, p + 4);
    return t->big ? first << 32 | second : second << 32 | first;
}
static uint64_t g4_tiff_offset(const g4_tiff *t, const uint8_t *p)
{
    return t->is_long ? g4_tiff_u64(t, p) : g4_tiff_u32(t, p);
}

/* Value i of a tag, which has more. */
static uint64_t g4_tiff_value_at(const g4_tiff *t, int tag, uint64_t i)
{
    const g4_tiff_field *f = &t->field[tag];
    const size_t bytes = g4_tiff_type_bytes(f->type);
    const uint8_t *p = f->at + bytes * (size_t)i;
    return bytes == 1 ? *p : bytes == 2 ? g4_tiff_u16(t, p) : bytes == 4 ? g4_tiff_u32(t, p) : g4_tiff_u64(t, p);
}

/* Its first value, below 2^32; `usual` without it. */
static uint32_t g4_tiff_one(const g4_tiff *t, int tag, uint32_t usual)
{
    const uint64_t v = t->field[tag].at ? g4_tiff_value_at(t, tag, 0) : usual;
    return v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
}

/* An entry of the list at p: tag, type, count, and the values or where they are. */
static void g4_tiff_note(g4_tiff *t, const uint8_t *p)
{
    const size_t room = t->is_long ? 8 : 4, head = t->is_long ? 12 : 8;
    const uint32_t tag = g4_tiff_u16(t, p);
    int i = 0;
    while (i < G4_TAGS && g4_tiff_tags[i] != tag) i++;
    if (i == G4_TAGS) return;
    g4_tiff_field f = { g4_tiff_u16(t, p + 2), g4_tiff_offset(t, p + 4), p + head };
    const size_t bytes = g4_tiff_type_bytes(f.type);
    if (bytes == 0 || f.count == 0 || f.count > t->size / bytes) return;
    if (bytes * f.count > room) {
        const uint64_t at = g4_tiff_offset(t, f.at);
        if (at > t->size || bytes * f.count > t->size - at) return;
        f.at = t->data + at;
    }
    t->field[i] = f;
}

/* The list of the first picture. */
static g4_status g4_tiff_list(g4_tiff *t, g4_error *err)
{
    t->big = t->data[0] == 'M';
    t->is_long = t->data[2] == '+' || t->data[3] == '+';
    const size_t head = t->is_long ? 16 : 8, count_bytes = t->is_long ? 8 : 2, entry = t->is_long ? 20 : 12;
    const uint64_t at = t->size < head ? UINT64_MAX : g4_tiff_offset(t, t->data + head / 2);
    if (t->size < head + count_bytes || at > t->size - count_bytes)
        return g4_fail(err, G4_ERR_FORMAT, "TIFF: truncated: no list of tags in %zu bytes", t->size);
    const uint8_t *p = t->data + at;
    const uint64_t n = t->is_long ? g4_tiff_u64(t, p) : g4_tiff_u16(t, p);
    if (n > (t->size - at - count_bytes) / entry)
        return g4_fail(err, G4_ERR_FORMAT, "TIFF: truncated: %" PRIu64 " tags in %zu bytes", n, t->size);
    p += count_bytes;
    for (uint64_t i = 0; i < n; i++, p += entry) {
        g4_tiff_note(t, p);
        if (g4_pace_ends(&t->pace, 16)) return g4_halt_check(t->pace.halt, err);
    }
    return G4_OK;
}

/* ---- What a picture is ----------------------------------------------------------------------- */

/* Bits of a sample, the same for each of a pixel; 0: they differ, or make no sense. */
static uint32_t g4_tiff_bits(g4_tiff *t)
{
    const uint64_t n = t->field[G4_TAG_BITS].at ? t->field[G4_TAG_BITS].count : 1;
    const uint32_t bits = g4_tiff_one(t, G4_TAG_BITS, 1);
    if (n < t->n_samples && n != 1) return 0;
    for (uint64_t i = 1; i < n && i < t->n_samples; i++)
        if (g4_tiff_value_at(t, G4_TAG_BITS, i) != bits) return 0;
    return bits;
}

/* Samples beyond the colours: the first may be transparency. Planes of no meaning are left out. */
static void g4_tiff_extra(g4_tiff *t)
{
    const uint64_t n = t->field[G4_TAG_EXTRA].at ? t->field[G4_TAG_EXTRA].count : 0;
    const uint64_t first = n ? g4_tiff_value_at(t, G4_TAG_EXTRA, 0) : 0;
    uint64_t any = 0;
    for (uint64_t i = 0; i < n && i < G4_TIFF_SAMPLES_MAX; i++) any |= g4_tiff_value_at(t, G4_TAG_EXTRA, i);
    if (n == 0 && t->meaning == G4_TIFF_RGB && t->n_samples == 4) t->alpha = G4_TIFF_ALPHA;
    if (t->n_samples <= t->n_colours) return;
    if (first == 1) t->alpha = G4_TIFF_PREMULTIPLIED;
    if (first == 2 || first == 999) t->alpha = G4_TIFF_ALPHA; /* 999: Corel Draw */
    if (t->n_planes > 1 && any == 0) t->n_planes = t->n_samples = t->n_colours;
}

static int g4_tiff_is_fax(const g4_tiff *t)
{
    return (t->compression >= G4_FAX_BYTES && t->compression <= G4_FAX_GROUP_4) || t->compression == G4_FAX_WORDS;
}

/* Is it of a kind that is read here? */
static int g4_tiff_is_known(const g4_tiff *t)
{
    const uint32_t b = t->bits, c = t->compression;
    const int is_grey = t->meaning <= G4_TIFF_BLACK_IS_0, is_plain = t->format == G4_TIFF_UNSIGNED;
    const int is_wide = is_grey && (b == 32 || (b == 16 && t->format != G4_TIFF_FLOAT));
    if (t->field[G4_TAG_DNG].at || t->n_samples > G4_TIFF_SAMPLES_MAX || t->n_samples < t->n_colours) return 0;
    if (g4_tiff_is_fax(t)) return b == 1 && is_plain && is_grey && t->n_samples == 1;
    if (c != G4_TIFF_RAW && (c < G4_TIFF_LZW || c > G4_TIFF_DEFLATE) && c != G4_TIFF_OLD_DEFLATE &&
        c != G4_TIFF_PACKBITS && c != G4_TIFF_LZMA)
        return 0;
    if (c == G4_TIFF_JPEG || c == G4_TIFF_OLD_JPEG) return b == 8 && is_plain && (t->n_planes == 1 || !t->is_ycc_jpeg);
    if (t->n_planes > 1 && (b < 8 || b == 12 || t->unit_w * t->unit_h > 1)) return 0;
    if (t->predictor == 3) return b == 32 && t->format == G4_TIFF_FLOAT && is_grey;
    if (t->predictor > 2 || (t->predictor == 2 && (b < 8 || b == 12 || t->unit_w * t->unit_h > 1))) return 0;
    if (is_wide) return t->format <= G4_TIFF_FLOAT;
    if (is_grey)
        return (is_plain && (b == 1 || b == 2 || b == 4 || b == 12)) || (b == 8 && t->format <= G4_TIFF_SIGNED);
    if (t->meaning == G4_TIFF_PALETTE) return is_plain && (b == 1 || b == 2 || b == 4 || b == 8);
    if (t->meaning == G4_TIFF_RGB || t->meaning == G4_TIFF_CMYK) return is_plain && (b == 8 || b == 16);
    return is_plain && b == 8 && (t->meaning == G4_TIFF_YCC || t->meaning == G4_TIFF_LAB);
}

/* Red, green and blue of all colours, of 16 bits each. */
static g4_status g4_tiff_colours(g4_tiff *t, g4_error *err)
{
    const uint32_t n = 1u << t->bits;
    if (!t->field[G4_TAG_PALETTE].at || t->field[G4_TAG_PALETTE].count < 3 * n)
        return g4_fail(err, G4_ERR_FORMAT, "TIFF: a palette of %" PRIu64 " numbers, expected %u",
                       t->field[G4_TAG_PALETTE].count, (unsigned)(3 * n));
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t c = 0; c < 3; c++)
            t->palette[i][c] = (uint8_t)(g4_tiff_value_at(t, G4_TAG_PALETTE, c * n + i) >> 8);
    return G4_OK;
}

/* Strips or tiles, how many, and are they all there? */
static g4_status g4_tiff_layout(g4_tiff *t, g4_error *err)
{
    t->is_tiled = t->field[G4_TAG_TILES].at && !t->field[G4_TAG_STRIPS].at;
    t->tile_w = t->is_tiled ? g4_tiff_one(t, G4_TAG_TILE_WIDTH, 0) : t->w;
    t->tile_h = t->is_tiled ? g4_tiff_one(t, G4_TAG_TILE_HEIGHT, 0) : g4_tiff_one(t, G4_TAG_ROWS, t->h);
    if (!t->is_tiled && t->tile_h > t->h) t->tile_h = t->h;
    if (t->tile_w == 0 || t->tile_h == 0 || t->tile_w > t->w + 65535 || t->tile_h > t->h + 65535)
        return g4_fail(err, G4_ERR_FORMAT, "TIFF: tiles of %" PRIu32 " x %" PRIu32, t->tile_w, t->tile_h);
    t->across = (t->w + t->tile_w - 1) / t->tile_w;
    t->down = (t->h + t->tile_h - 1) / t->tile_h;
    const uint64_t area = (uint64_t)t->across * t->tile_w * t->down * t->tile_h, pixels = (uint64_t)t->w * t->h;
    const uint64_t n = (uint64_t)t->across * t->down * t->n_planes;
    const g4_tiff_field *f = &t->field[t->is_tiled ? G4_TAG_TILES : G4_TAG_STRIPS];
    if (area > 4 * pixels + (1 << 22)) /* more than a few large tiles that the picture fills in part */
        return g4_fail(err, G4_ERR_UNSUPPORTED, "TIFF: tiles of %" PRIu64 " pixels for %" PRIu32 " x %" PRIu32, area,
                       t->w, t->h);
    if (!f->at || f->count < n)
        return g4_fail(err, G4_ERR_FORMAT, "TIFF: places of %" PRIu64 " strips or tiles, expected %" PRIu64,
                       f->at ? f->count : 0, n);
    return g4_pixels_check_bytes(t->m, "TIFF", t->w, t->h, t->size, err);
}

static void g4_tiff_numbers(g4_tiff *t)
{
    static const uint8_t colours[9] = { 1, 1, 3, 1, 1, 4, 3, 1, 3 }; /* by meaning */
    t->w = g4_tiff_one(t, G4_TAG_WIDTH, 0);
    t->h = g4_tiff_one(t, G4_TAG_HEIGHT, 0);
    t->compression = g4_tiff_one(t, G4_TAG_COMPRESSION, G4_TIFF_RAW);
    t->meaning = g4_tiff_one(t, G4_TAG_MEANING, G4_TIFF_WHITE_IS_0);
    t->format = g4_tiff_one(t, G4_TAG_FORMAT, G4_TIFF_UNSIGNED);
    t->is_reversed = g4_tiff_one(t, G4_TAG_FILL_ORDER, 1) == 2;
    t->n_samples = g4_tiff_one(t, G4_TAG_SAMPLES, t->compression == G4_TIFF_OLD_JPEG ? 3 : 1);
    if (t->compression == G4_TIFF_OLD_JPEG && t->n_samples == 3) t->meaning = G4_TIFF_YCC; /* whatever it says */
    if (t->meaning == G4_TIFF_YCC && t->n_samples == 1) t->meaning = G4_TIFF_BLACK_IS_0;
    t->n_colours = t->meaning < sizeof colours ? colours[t->meaning] : 1;
    t->n_planes = g4_tiff_one(t, G4_TAG_PLANAR, 1) == 2 ? t->n_samples : 1;
    const int has_predictor = t->compression == G4_TIFF_LZW || t->compression == G4_TIFF_DEFLATE ||
                              t->compression == G4_TIFF_OLD_DEFLATE || t->compression == G4_TIFF_LZMA;
    t->predictor = has_predictor ? g4_tiff_one(t, G4_TAG_PREDICTOR, 1) : 1; /* others ignore it, as libtiff does */
    t->unit_w = t->unit_h = 1;
    if (t->meaning == G4_TIFF_YCC && (t->compression == G4_TIFF_JPEG || t->compression == G4_TIFF_OLD_JPEG)) {
        t->is_ycc_jpeg = 1;
        t->meaning = G4_TIFF_RGB;
    } else if (t->meaning == G4_TIFF_YCC) {
        t->unit_w = g4_tiff_one(t, G4_TAG_SUBSAMPLING, 2);
        t->unit_h = t->field[G4_TAG_SUBSAMPLING].count > 1 ? (uint32_t)g4_tiff_value_at(t, G4_TAG_SUBSAMPLING, 1) : 2;
    }
}

static g4_status g4_tiff_open(const g4_media_limits *m, g4_tiff *t, const uint8_t *data, size_t size, int *foreign,
                              g4_error *err)
{
    *t = (g4_tiff) { .m = m, .data = data, .size = size, .pace = { m->halt, 0 } };
    g4_status s = g4_tiff_list(t, err);
    if (s) return s;
    g4_tiff_numbers(t);
    if (t->n_samples == 0 || t->n_samples > G4_TIFF_SAMPLES_MAX) t->n_samples = G4_TIFF_SAMPLES_MAX + 1; /* not known */
    t->bits = g4_tiff_bits(t);
    g4_tiff_extra(t);
    const int is_unit = t->unit_w - 1 < 4 && t->unit_h - 1 < 4 && t->unit_w != 3 && t->unit_h != 3;
    if (!is_unit || !g4_tiff_is_known(t)) {
        *foreign = 1;
        return G4_ERR_UNSUPPORTED;
    }
    s = g4_pixels_check(m, "TIFF", t->w, t->h, err);
    if (s) return s;
    const g4_tiff_field *xmp = &t->field[G4_TAG_XMP];
    const g4_tiff_field *turn = &t->field[G4_TAG_ORIENTATION];
    const int64_t orientation = turn->at ? g4_tiff_number(turn->type, turn->at, t->big) : 1;
    t->turn.exif = !turn->at ? 0 : orientation >= 1 && orientation <= 8 ? (int)orientation : 1;
    if (xmp->at && g4_tiff_type_bytes(xmp->type) == 1)
        g4_turn_by_xmp(&t->turn, xmp->at, g4_min_size(xmp->count, G4_XMP_MAX));
    if (t->meaning == G4_TIFF_PALETTE) s = g4_tiff_colours(t, err);
    return s ? s : g4_tiff_layout(t, err);
}

/* ---- Compression ----------------------------------------------------------------------------- */

/* Each of these fills out (size) from n bytes of data, or returns what is wrong. */
static const char g4_tiff_short[] = "truncated";

static const char *g4_tiff_packbits(g4_tiff *t, const uint8_t *p, size_t n, uint8_t *out, size_t size)
{
    const uint8_t *const end = p + n;
    for (size_t at = 0; at < size;) {
        if (end - p < 2) return g4_tiff_short;
        const uint32_t code = *p++;
        const size_t count = g4_min_size(size - at, code < 128 ? code + 1 : 257 - code);
        if (g4_pace_ends(&t->pace, 16)) return "halted";
        if (code == 128) continue;
        if (code > 128) {
            memset(out + at, *p++, count);
        } else {
            if ((size_t)(end - p) < count) return g4_tiff_short;
            memcpy(out + at, p, count);
            p += count;
        }
        at += count;
    }
    return NULL;
}

/* A stream of one piece. */
typedef struct {
    const uint8_t *p;
    size_t n;
} g4_tiff_piece;

static int g4_tiff_next_piece(void *ctx, const uint8_t **p, const uint8_t **end)
{
    g4_tiff_piece *piece = ctx;
    *p = piece->p;
    *end = piece->p + piece->n;
    piece->p += piece->n;
    piece->n = 0;
    return *p < *end;
}

static const char *g4_tiff_lzw(g4_tiff *t, const uint8_t *p, size_t n, uint8_t *out, size_t size)
{
    const int is_old = n >= 2 && p[0] == 0 && (p[1] & 1);
    return g4_lzw(g4_tiff_next_piece, &(g4_tiff_piece) { p, n }, 8, is_old, out, size, &t->pace);
}

static g4_status g4_tiff_jpeg(g4_tiff *t, const uint8_t *p, size_t n, uint32_t rows, uint8_t *out, g4_error *err)
{
    const g4_tiff_field *tables = &t->field[G4_TAG_JPEG_TABLES];
    const int channels = t->n_planes > 1 ? 1 : (int)t->n_samples;
    g4_jpeg_stream in = { .data = p,
                          .size = n,
                          .w = (int)t->tile_w,
                          .h = (int)rows,
                          .max_h = (int)t->tile_h,
                          .channels = channels,
                          .is_ycc = t->is_ycc_jpeg,
                          .is_plain = t->compression == G4_TIFF_OLD_JPEG /* as libtiff has it */ };
    if (tables->at && tables->count > 4) {
        in.tables = tables->at;
        in.n_tables = (size_t)tables->count;
    }
    if (n < 4 || p[0] != 0xff || p[1] != 0xd8)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "TIFF: JPEG data in pieces (compression %" PRIu32 ") are not read",
                       t->compression);
    return g4_jpeg_part(t->m, &in, out, err);
}

/* ---- Tiles ----------------------------------------------------------------------------------- */

static size_t g4_tiff_row_bytes(const g4_tiff *t)
{
    const uint64_t samples = (uint64_t)t->tile_w * (t->n_planes > 1 ? 1 : t->n_samples);
    return (size_t)((samples * t->bits + 7) / 8);
}

/* Bytes of so many rows. Pixels that share chroma stand together: their Y, then Cb, Cr. */
static size_t g4_tiff_bytes(const g4_tiff *t, uint32_t rows)
{
    if (t->unit_w * t->unit_h == 1) return g4_tiff_row_bytes(t) * rows;
    const size_t units = (t->tile_w + t->unit_w - 1) / t->unit_w;
    return units * ((rows + t->unit_h - 1) / t->unit_h) * (t->unit_w * t->unit_h + 2);
}

static void g4_tiff_reverse(const uint8_t *p, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t v = p[i];
        v = (v & 0xf0) >> 4 | (v & 0x0f) << 4;
        v = (v & 0xcc) >> 2 | (v & 0x33) << 2;
        out[i] = (uint8_t)((v & 0xaa) >> 1 | (v & 0x55) << 1);
    }
}

static g4_status g4_tiff_unpack(g4_tiff *t, const uint8_t *p, size_t n, uint32_t rows, uint8_t *out, g4_error *err)
{
    const size_t size = g4_tiff_bytes(t, rows);
    size_t found = size;
    const char *wrong = NULL;
    g4_tiff_piece piece = { p, n };
    switch (t->compression) {
    case G4_TIFF_OLD_JPEG:
    case G4_TIFF_JPEG: return g4_tiff_jpeg(t, p, n, rows, out, err);
    case G4_TIFF_PACKBITS: wrong = g4_tiff_packbits(t, p, n, out, size); break;
    case G4_FAX_BYTES:
    case G4_FAX_GROUP_3:
    case G4_FAX_GROUP_4:
    case G4_FAX_WORDS: wrong = g4_fax_decode(t->fax, p, n, rows, out); break;
    case G4_TIFF_LZW: wrong = g4_tiff_lzw(t, p, n, out, size); break;
    case G4_TIFF_LZMA: wrong = g4_xz(p, n, out, size, &t->pace); break;
    default:
        wrong = g4_inflate(g4_tiff_next_piece, &piece, out, size, &found, t->pace.halt);
        if (!wrong && found < size) wrong = g4_tiff_short;
    }
    if (!wrong) return G4_OK;
    const g4_status s = g4_halt_check(t->pace.halt, err);
    return s ? s : g4_fail(err, G4_ERR_FORMAT, "TIFF: pixels at byte %zu: %s", (size_t)(p - t->data), wrong);
}

/* The bytes of a strip or tile in the file. */
static g4_status g4_tiff_find(const g4_tiff *t, uint64_t index, size_t least, const uint8_t **p, size_t *n,
                              g4_error *err)
{
    const int places = t->is_tiled ? G4_TAG_TILES : G4_TAG_STRIPS,
              counts = t->is_tiled ? G4_TAG_TILE_BYTES : G4_TAG_STRIP_BYTES;
    const int is_raw = t->compression == G4_TIFF_RAW;
    /* of several that are the whole picture, the last one holds, as in Pillow */
    if (is_raw && t->across * t->down * t->n_planes == 1) index = t->field[places].count - 1;
    const uint64_t at = g4_tiff_value_at(t, places, index);
    if (at >= t->size || (is_raw && least > t->size - at))
        return g4_fail(err, G4_ERR_FORMAT, "TIFF: truncated: pixels at byte %" PRIu64 " of %zu", at, t->size);
    *p = t->data + at;
    *n = t->size - (size_t)at;
    if (is_raw) {
        *n = least;
    } else if (t->field[counts].at && index < t->field[counts].count) {
        const uint64_t count = g4_tiff_value_at(t, counts, index);
        if (count > 0 && count < *n) *n = (size_t)count;
    }
    return G4_OK;
}

/* The bits of a strip or tile the other way round, which takes a copy of what is packed. */
static g4_status g4_tiff_unpack_reversed(g4_tiff *t, const uint8_t *p, size_t n, uint32_t rows, uint8_t *out,
                                         g4_error *err)
{
    if (t->compression == G4_TIFF_RAW) {
        g4_tiff_reverse(p, n, out);
        return G4_OK;
    }
    uint8_t *copy = g4_alloc(t->m->a, n, 1);
    if (!copy) return g4_fail(err, G4_ERR_MEMORY, "TIFF: %zu bytes: out of memory", n);
    g4_tiff_reverse(p, n, copy);
    const g4_status s = g4_tiff_unpack(t, copy, n, rows, out, err);
    g4_free(t->m->a, copy);
    return s;
}

/* The first rows of a strip or tile: in the file, where `out` is NULL because nothing is to be unpacked, or in it. */
static g4_status g4_tiff_tile(g4_tiff *t, uint64_t index, uint32_t rows, uint8_t *out, const uint8_t **found,
                              g4_error *err)
{
    const uint8_t *p = t->data;
    size_t n = 0;
    const g4_status s = g4_tiff_find(t, index, g4_tiff_bytes(t, rows), &p, &n, err);
    *found = out ? out : p;
    if (s || !out) return s;
    return t->is_reversed ? g4_tiff_unpack_reversed(t, p, n, rows, out, err) : g4_tiff_unpack(t, p, n, rows, out, err);
}

/* ---- Predictors ------------------------------------------------------------------------------ */

/* Each sample is the difference to the one `step` before it. */
static void g4_tiff_add(const g4_tiff *t, uint8_t *row, size_t n, size_t step)
{
    if (t->bits == 8) {
        for (size_t i = step; i < n; i++) row[i] = (uint8_t)(row[i] + row[i - step]);
        return;
    }
    const size_t wide = t->bits / 8;
    for (size_t i = step; i < n; i++) {
        uint32_t carry = 0;
        for (size_t k = 0; k < wide; k++) {
            const size_t byte = t->big ? wide - 1 - k : k;
            const uint32_t sum = (uint32_t)row[i * wide + byte] + row[(i - step) * wide + byte] + carry;
            row[i * wide + byte] = (uint8_t)sum;
            carry = sum >> 8;
        }
    }
}

/* Floats of four bytes: differences of bytes, and the first bytes of all floats stand before the second ones. */
static void g4_tiff_add_floats(const g4_tiff *t, uint8_t *row, size_t n, uint8_t *line)
{
    for (size_t i = 1; i < 4 * n; i++) row[i] = (uint8_t)(row[i] + row[i - 1]);
    memcpy(line, row, 4 * n);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < 4; k++) row[4 * i + (t->big ? k : 3 - k)] = line[k * n + i];
}

static void g4_tiff_unpredict(const g4_tiff *t, uint8_t *row)
{
    const size_t samples = t->n_planes > 1 ? 1 : t->n_samples;
    if (t->predictor == 2) g4_tiff_add(t, row, samples * t->tile_w, samples);
    if (t->predictor == 3) g4_tiff_add_floats(t, row, samples * t->tile_w, t->line);
}

/* ---- Pixels ---------------------------------------------------------------------------------- */

static uint32_t g4_tiff_sample(const g4_tiff *t, const uint8_t *row, size_t i)
{
    if (t->bits == 8) return row[i];
    if (t->bits == 16) return g4_tiff_u16(t, row + 2 * i);
    if (t->bits == 32) return g4_tiff_u32(t, row + 4 * i);
    const size_t bit = i * t->bits, byte = bit >> 3;
    if (t->bits == 12)
        return bit & 7 ? (row[byte] & 15u) << 8 | row[byte + 1] : (uint32_t)row[byte] << 4 | row[byte + 1] >> 4;
    return (uint32_t)row[byte] >> (8 - t->bits - (bit & 7)) & ((1u << t->bits) - 1);
}

/* A sample as 8 bits. Numbers with a sign, of 32 bits and floats are clipped, as in Pillow. */
static uint8_t g4_tiff_level(const g4_tiff *t, uint32_t v)
{
    if (t->bits == 8 || t->meaning == G4_TIFF_PALETTE) return (uint8_t)v;
    if (t->format == G4_TIFF_FLOAT) {
        float f;
        memcpy(&f, &v, sizeof f);
        return (uint8_t)(!(f > 0) ? 0 : f >= 255 ? 255 : (int)f);
    }
    if (t->bits == 32) return v > INT32_MAX ? 0 : v > 255 ? 255 : (uint8_t)v;
    if (t->format == G4_TIFF_SIGNED) return v > INT16_MAX ? 0 : v > 255 ? 255 : (uint8_t)v; /* of 16 bits */
    return (uint8_t)(t->bits == 16 ? v >> 8 : t->bits == 12 ? v >> 4 : v * 255 / ((1u << t->bits) - 1));
}

/* YCbCr of BT.601 and full range as libtiff has it, with 16 bits of fraction; where Pillow itself reads the
 * samples, with 6 bits of products that are rounded before (ConvertYCbCr.c). */
static void g4_tiff_ycc(const g4_tiff *t, int y, int cb, int cr, uint8_t *rgb)
{
    const int b = cb - 128, r = cr - 128;
    if (t->compression == G4_TIFF_RAW) {
        rgb[0] = g4_clamp_u8(y + ((int)(89.728 * r + 0.5) >> 6));
        rgb[1] = g4_clamp_u8(y + (((int)(-22.02496 * b + 0.5) + (int)(-45.70496 * r + 0.5)) >> 6));
        rgb[2] = g4_clamp_u8(y + ((int)(113.408 * b + 0.5) >> 6));
    } else {
        rgb[0] = g4_clamp_u8(y + ((91881 * r + 32768) >> 16));
        rgb[1] = g4_clamp_u8(y + ((-22553 * b - 46802 * r + 32768) >> 16));
        rgb[2] = g4_clamp_u8(y + ((116130 * b + 32768) >> 16));
    }
}

/* CIELAB of the white D50 to sRGB (ISO 12640-3, IEC 61966-2-1). L is 0 to 255, a and b have a sign. */
static void g4_tiff_lab(const uint8_t v[3], uint8_t *rgb)
{
    static const double white[3] = { 0.9642, 1, 0.8249 }, matrix[3][3] = { { 3.1338561, -1.6168667, -0.4906146 },
                                                                           { -0.9787684, 1.9161415, 0.0334540 },
                                                                           { 0.0719453, -0.2289914, 1.4052427 } };
    const double y = (v[0] * 100 / 255.0 + 16) / 116;
    const double f[3] = { y + (v[1] < 128 ? v[1] : v[1] - 256) / 500.0, y,
                          y - (v[2] < 128 ? v[2] : v[2] - 256) / 200.0 };
    double xyz[3];
    for (int i = 0; i < 3; i++)
        xyz[i] = white[i] * (f[i] > 6.0 / 29 ? f[i] * f[i] * f[i] : (f[i] - 4.0 / 29) * 108 / 841);
    for (int c = 0; c < 3; c++) {
        const double light = matrix[c][0] * xyz[0] + matrix[c][1] * xyz[1] + matrix[c][2] * xyz[2];
        const double level = light <= 0.0031308 ? 12.92 * light : 1.055 * pow(light, 1 / 2.4) - 0.055;
        rgb[c] = g4_clamp_u8((int32_t)rint(level * 255));
    }
}

/* A pixel of levels v to RGB, without its transparency. */
static void g4_tiff_colour(const g4_tiff *t, const uint8_t *v, uint8_t *rgb)
{
    switch (t->meaning) {
    case G4_TIFF_RGB: memcpy(rgb, v, 3); break;
    case G4_TIFF_PALETTE: memcpy(rgb, t->palette[v[0]], 3); break;
    case G4_TIFF_CMYK:
        for (int c = 0; c < 3; c++) { /* Pillow's product of two levels */
            const int white = 255 - v[3], p = v[c] * white + 128;
            rgb[c] = g4_clamp_u8(white - (((p >> 8) + p) >> 8));
        }
        break;
    case G4_TIFF_YCC: g4_tiff_ycc(t, v[0], v[1], v[2], rgb); break;
    case G4_TIFF_LAB: g4_tiff_lab(v, rgb); break;
    default: memset(rgb, t->meaning == G4_TIFF_WHITE_IS_0 && t->bits <= 16 ? 255 - v[0] : v[0], 3);
    }
}

/* Over white. */
static void g4_tiff_blend(const g4_tiff *t, uint32_t alpha, uint8_t *rgb)
{
    for (int c = 0; c < 3; c++) {
        const uint32_t v = rgb[c], full = alpha == 0 ? 0 : v * 255 / alpha;
        rgb[c] = g4_over_white(t->alpha == G4_TIFF_ALPHA ? v : full > 255 ? 255 : full, alpha);
    }
}

/* n pixels of one sample of a bit each, four at a time. */
static void g4_tiff_bits_row(const g4_tiff *t, const uint8_t *row, size_t n, uint8_t *rgb)
{
    uint8_t four[16][12];
    for (uint32_t i = 0; i < 16; i++)
        for (uint32_t k = 0; k < 4; k++) {
            const uint8_t level = g4_tiff_level(t, i >> (3 - k) & 1);
            g4_tiff_colour(t, &level, four[i] + (size_t)3 * k);
        }
    for (size_t x = 0; x + 4 <= n; x += 4) memcpy(rgb + 3 * x, four[row[x / 8] >> (4 - (x & 4)) & 15], 12);
    const size_t rest = n % 4, x = n - rest;
    if (rest > 0) memcpy(rgb + 3 * x, four[row[x / 8] >> (4 - (x & 4)) & 15], 3 * rest);
}

/* n pixels whose samples stand together. */
static void g4_tiff_row(const g4_tiff *t, const uint8_t *row, uint32_t n, uint8_t *rgb)
{
    const size_t samples = t->n_samples, used = t->n_colours + (t->alpha ? 1u : 0u);
    if (t->meaning == G4_TIFF_RGB && t->bits == 8 && samples == 3) {
        if (rgb != row) memcpy(rgb, row, 3 * (size_t)n);
        return;
    }
    if (t->bits == 1 && samples == 1) {
        g4_tiff_bits_row(t, row, n, rgb);
        return;
    }
    for (size_t x = 0; x < n; x++, rgb += 3) {
        uint8_t v[G4_TIFF_SAMPLES_MAX + 1] = { 0 };
        for (size_t s = 0; s < used; s++) v[s] = g4_tiff_level(t, g4_tiff_sample(t, row, x * samples + s));
        g4_tiff_colour(t, v, rgb);
        if (t->alpha && v[used - 1] != 255) g4_tiff_blend(t, v[used - 1], rgb);
    }
}

/* Row y of a tile whose pixels share chroma. */
static void g4_tiff_unit_row(const g4_tiff *t, const uint8_t *tile, uint32_t y, uint32_t n, uint8_t *rgb)
{
    const size_t luma = t->unit_w * t->unit_h, units = (t->tile_w + t->unit_w - 1) / t->unit_w;
    const uint8_t *row = tile + y / t->unit_h * units * (luma + 2);
    for (uint32_t x = 0; x < n; x++) {
        const uint8_t *unit = row + x / t->unit_w * (luma + 2);
        g4_tiff_ycc(t, unit[y % t->unit_h * t->unit_w + x % t->unit_w], unit[luma], unit[luma + 1],
                    rgb + 3 * (size_t)x);
    }
}

/* Row y of planes to a row of pixels. */
static void g4_tiff_join(const g4_tiff *t, const uint8_t *const *planes, uint32_t y, uint32_t n)
{
    const size_t wide = t->bits / 8, samples = t->n_samples, at = g4_tiff_row_bytes(t) * y;
    for (size_t s = 0; s < samples; s++)
        for (size_t x = 0; x < n; x++) memcpy(t->line + (x * samples + s) * wide, planes[s] + at + x * wide, wide);
}

/* The tile at column tx and row ty into the picture. */
static g4_status g4_tiff_put_tile(g4_tiff *t, uint32_t tx, uint32_t ty, g4_pixels *out, g4_error *err)
{
    const uint8_t *plane[G4_TIFF_SAMPLES_MAX] = { NULL };
    const uint32_t x = tx * t->tile_w, y = ty * t->tile_h;
    const uint32_t n = t->w - x < t->tile_w ? t->w - x : t->tile_w, rows = t->h - y < t->tile_h ? t->h - y : t->tile_h;
    const size_t room = g4_tiff_bytes(t, t->tile_h), row_bytes = g4_tiff_row_bytes(t);
    uint32_t i = 0;
    do { /* there is one at least */
        const uint64_t index = ((uint64_t)i * t->down + ty) * t->across + tx;
        uint8_t *const buffer = t->buffer ? t->buffer + i * room : NULL;
        const g4_status s = g4_tiff_tile(t, index, rows, buffer, &plane[i], err);
        if (s) return s;
        for (uint32_t k = 0; t->predictor > 1 && buffer && k < rows; k++) g4_tiff_unpredict(t, buffer + k * row_bytes);
    } while (++i < t->n_planes);
    for (uint32_t k = 0; k < rows; k++) {
        uint8_t *rgb = out->rgb + 3 * ((size_t)(y + k) * t->w + x);
        if (t->n_planes > 1) g4_tiff_join(t, plane, k, n);
        if (t->unit_w * t->unit_h > 1)
            g4_tiff_unit_row(t, plane[0], k, n, rgb);
        else
            g4_tiff_row(t, t->n_planes > 1 ? t->line : plane[0] + k * row_bytes, n, rgb);
        if (g4_pace_ends(&t->pace, 4 * (size_t)n)) return g4_halt_check(t->pace.halt, err);
    }
    return G4_OK;
}

/* ---- Pictures -------------------------------------------------------------------------------- */

/* Is it one strip of the pixels that are wanted? Then it is unpacked to where they go. */
static int g4_tiff_is_direct(const g4_tiff *t)
{
    return t->meaning == G4_TIFF_RGB && t->bits == 8 && t->n_samples == 3 && t->n_planes == 1 && t->tile_w == t->w &&
           t->down == 1 && t->tile_h == t->h && t->compression != G4_TIFF_RAW && !t->is_reversed;
}

/* Room for a tile, a row and the rows of a fax, as far as they are needed. */
static g4_status g4_tiff_rooms(g4_tiff *t, g4_pixels *out, g4_error *err)
{
    const int is_packed = t->compression != G4_TIFF_RAW && !g4_tiff_is_direct(t);
    if (is_packed || t->is_reversed) t->buffer = g4_alloc(t->m->a, t->n_planes, g4_tiff_bytes(t, t->tile_h));
    t->line = g4_alloc(t->m->a, (size_t)t->tile_w * t->n_samples, (t->bits + 7) / 8);
    if (g4_tiff_is_fax(t))
        t->fax = g4_fax_open(t->m, (int)t->compression, g4_tiff_one(t, G4_TAG_FAX_OPTIONS, 0) & 1, t->tile_w, t->size);
    if (g4_tiff_is_direct(t)) t->buffer = out->rgb;
    if (t->line && (t->buffer || (!is_packed && !t->is_reversed)) && (t->fax || !g4_tiff_is_fax(t))) return G4_OK;
    return g4_fail(err, G4_ERR_MEMORY, "TIFF: %" PRIu32 " x %" PRIu32 " pixels: out of memory", t->w, t->h);
}

static g4_status g4_tiff_tiles(g4_tiff *t, g4_pixels *out, g4_error *err)
{
    g4_status s = G4_OK;
    for (uint32_t ty = 0; ty < t->down && !s; ty++)
        for (uint32_t tx = 0; tx < t->across && !s; tx++) s = g4_tiff_put_tile(t, tx, ty, out, err);
    return s;
}

/* Strips or tiles that share their bytes: a file with a few of them would be as much work as with all. */
static g4_status g4_tiff_check_sharing(const g4_tiff *t, g4_error *err)
{
    uint64_t sum = 0;
    if (t->compression == G4_TIFF_RAW) return G4_OK;
    for (uint64_t i = 0; i < (uint64_t)t->across * t->down * t->n_planes && sum <= 4 * (uint64_t)t->size; i++) {
        const uint8_t *p = NULL;
        size_t n = 0;
        const g4_status s = g4_tiff_find(t, i, 0, &p, &n, err);
        if (s) return s;
        sum += n;
    }
    return sum <= 4 * (uint64_t)t->size
               ? G4_OK
               : g4_fail(err, G4_ERR_UNSUPPORTED, "TIFF: its strips or tiles share their bytes more than four times");
}

g4_status g4_tiff_size(const g4_media_limits *m, const uint8_t *data, size_t size, int *w, int *h, int *foreign,
                       g4_error *err)
{
    g4_tiff t;
    const g4_status s = g4_tiff_open(m, &t, data, size, foreign, err);
    if (!s) g4_upright_size((int)t.w, (int)t.h, g4_orientation(&t.turn), w, h);
    return s;
}

g4_status g4_tiff_decode(const g4_media_limits *m, const uint8_t *data, size_t size, g4_pixels *out, int *foreign,
                         g4_error *err)
{
    g4_tiff t;
    memset(out, 0, sizeof *out);
    g4_status s = g4_tiff_open(m, &t, data, size, foreign, err);
    if (!s) s = g4_tiff_check_sharing(&t, err);
    if (!s) s = g4_pixels_alloc(m, "TIFF", t.w, t.h, out, err);
    if (!s) s = g4_tiff_rooms(&t, out, err);
    if (!s) s = g4_tiff_tiles(&t, out, err);
    if (t.buffer != out->rgb) g4_free(m->a, t.buffer);
    g4_free(m->a, t.line);
    g4_fax_close(m, t.fax);
    if (!s) s = g4_pixels_orient(m, out, g4_orientation(&t.turn), err);
    if (s) g4_pixels_free(m, out);
    return s;
}
