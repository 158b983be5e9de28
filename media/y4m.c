/* y4m.c - YUV4MPEG2 of 8 bits, 4:2:0, 4:2:2, 4:4:4, 4:1:1 or mono, from memory or a seekable file: its sampled frames
 * as RGB. Chroma samples are repeated, not interpolated. BT.601, limited range (Y 16..235, U and V 16..240), each level
 * rounded to nearest with 16 fraction bits:
 *
 *   R = 255/219 (Y - 16) + 1.402 * 255/224 (V - 128)
 *   G = 255/219 (Y - 16) - (0.344136 (U - 128) + 0.714136 (V - 128)) * 255/224
 *   B = 255/219 (Y - 16) + 1.772 * 255/224 (U - 128)
 *
 * With XCOLORRANGE=FULL, Y is taken as it is, and 255/219 and 255/224 are left out. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <inttypes.h>
#include <sys/types.h>

/* ---- A file, or bytes in memory ------------------------------------------------------------- */

static int g4_source_read(g4_source *s, void *out, size_t n) /* nonzero: fewer are left, or halted */
{
    if (n > s->size - s->pos) return 1;
    uint8_t *dst = out;
    for (size_t count; n > 0; n -= count, dst += count) {
        count = g4_piece(n);
        if (s->data)
            memcpy(dst, s->data + s->pos, count);
        else if (fread(dst, 1, count, s->file) != count)
            return 1;
        s->pos += count;
        if (count == G4_PACE && g4_halted(s->halt)) return 1;
    }
    return 0;
}

static int g4_source_seek(g4_source *s, uint64_t pos) /* nonzero: it cannot be reached */
{
    if (pos > s->size || (!s->data && fseeko(s->file, (off_t)pos, SEEK_SET) != 0)) return 1;
    s->pos = pos;
    return 0;
}

/* Text up to a newline, which is dropped. Nonzero: there is none in cap - 1 bytes. */
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

/* ---- The first line ------------------------------------------------------------------------- */

#define G4_Y4M_LINE 512 /* bytes of a line at most */
#define G4_Y4M_MAGIC 10 /* bytes of "YUV4MPEG2 " */

typedef struct {
    uint64_t w, h, chroma_w, chroma_h; /* of a chroma plane: 0 for mono */
    uint64_t frame_bytes;
    double fps; /* 24 when the file does not say, as the reference assumes */
    int full_range;
} g4_y4m;

/* One field of the line: a letter and its value, n bytes in all. Returns the colour format if it is that. */
static const char *g4_y4m_field(g4_y4m *y, const char *field, size_t n)
{
    if (n == 0) return NULL;
    g4_pace never = { NULL, 0 }; /* a line is short */
    g4_reader value = { (const uint8_t *)field + 1, n - 1, 0, 0 };
    if (*field == 'W') y->w = (uint64_t)g4_scan_number(&value, 9, &never);
    if (*field == 'H') y->h = (uint64_t)g4_scan_number(&value, 9, &never);
    if (*field == 'F') {
        const int64_t frames = g4_scan_number(&value, 9, &never);
        value.pos++; /* the colon */
        const int64_t seconds = value.pos < value.size ? g4_scan_number(&value, 9, &never) : -1;
        if (frames > 0 && seconds > 0) y->fps = (double)frames / (double)seconds;
    }
    if (!strcmp(field, "XCOLORRANGE=FULL")) y->full_range = 1;
    return *field == 'C' ? field + 1 : NULL;
}

/* Columns and rows that share a chroma sample, 0 for mono, which has none. Returns 0 for an unknown format. */
static int g4_y4m_shared(const char *format, uint64_t *columns, uint64_t *rows)
{
    static const struct {
        const char *name;
        uint8_t columns, rows;
    } formats[] = { { "420jpeg", 2, 2 }, { "420mpeg2", 2, 2 }, { "420paldv", 2, 2 }, { "420", 2, 2 },
                    { "422", 2, 1 },     { "444", 1, 1 },      { "411", 4, 1 },      { "mono", 0, 0 } };
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(format, formats[i].name) != 0) continue;
        *columns = formats[i].columns;
        *rows = formats[i].rows;
        return 1;
    }
    return 0;
}

/* *foreign is set for a kind of y4m that ffmpeg may read. */
static g4_status g4_y4m_header(const g4_media_limits *m, g4_y4m *y, char *line, int *foreign, g4_error *err)
{
    const char *format = "420jpeg";
    *y = (g4_y4m) { .fps = 24 };
    for (char *p = line; *p;) {
        const size_t n = strcspn(p, " ");
        char *next = p[n] ? p + n + 1 : p + n;
        p[n] = 0;
        const char *named = g4_y4m_field(y, p, n);
        if (named) format = named;
        p = next;
    }
    if (y->w < 1 || y->h < 1 || y->w > INT32_MAX || y->h > INT32_MAX)
        return g4_fail(err, G4_ERR_FORMAT, "y4m: the header gives no size");
    const g4_status s = g4_pixels_check(m, "y4m", y->w, y->h, err);
    if (s) return s;
    uint64_t columns, rows;
    if (!g4_y4m_shared(format, &columns, &rows)) {
        *foreign = 1;
        return g4_fail(err, G4_ERR_UNSUPPORTED, "y4m: colour format %.20s, expected 420, 422, 444, 411 or mono",
                       format);
    }
    y->chroma_w = columns ? (y->w + columns - 1) / columns : 0;
    y->chroma_h = rows ? (y->h + rows - 1) / rows : 0;
    y->frame_bytes = y->w * y->h + 2 * y->chroma_w * y->chroma_h;
    return G4_OK;
}

/* ---- Frames --------------------------------------------------------------------------------- */

/* yuv: the planes of a frame, (h, w), then U and V. Nonzero: halted. */
static int g4_y4m_rgb(const g4_y4m *y, const uint8_t *yuv, uint8_t *dst, g4_halt *halt)
{
    g4_pace pace = { halt, 0 };
    const int mono = y->chroma_w == 0, full = y->full_range;
    const uint8_t *u_plane = yuv + y->w * y->h, *v_plane = u_plane + y->chroma_w * y->chroma_h;
    const uint64_t columns = mono ? 1 : (y->w + y->chroma_w - 1) / y->chroma_w;
    const uint64_t rows = mono ? 1 : (y->h + y->chroma_h - 1) / y->chroma_h;
    const int32_t black = full ? 0 : 16, ky = full ? 65536 : 76309, rv = full ? 91881 : 104597;
    const int32_t gu = full ? 22553 : 25675, gv = full ? 46802 : 53279, bu = full ? 116130 : 132201;
    for (uint64_t r = 0; r < y->h; r++) {
        for (uint64_t c = 0; c < y->w; c++, dst += 3) {
            const size_t k = (size_t)(r / rows * y->chroma_w + c / columns);
            const int32_t luma = (*yuv++ - black) * ky + 32768;
            const int32_t u = mono ? 0 : u_plane[k] - 128, v = mono ? 0 : v_plane[k] - 128;
            dst[0] = g4_clamp_u8((luma + rv * v) >> 16);
            dst[1] = g4_clamp_u8((luma - gu * u - gv * v) >> 16);
            dst[2] = g4_clamp_u8((luma + bu * u) >> 16);
            if (g4_pace_ends(&pace, 2)) return 1;
        }
    }
    return 0;
}

/* How many frames follow, which are all checked to be there. */
static g4_status g4_y4m_count(g4_source *src, const g4_y4m *y, int64_t *total, g4_error *err)
{
    char line[G4_Y4M_LINE];
    for (*total = 0; src->pos < src->size; ++*total) {
        const g4_status halted = g4_halt_check(src->halt, err);
        if (halted) return halted;
        if (g4_source_line(src, line, sizeof line) || strncmp(line, "FRAME", 5) != 0)
            return g4_fail(err, G4_ERR_FORMAT, "y4m: byte %" PRIu64 ": expected FRAME and a newline for frame %" PRId64,
                           src->pos, *total);
        if (g4_source_seek(src, src->pos + y->frame_bytes))
            return g4_fail(err, G4_ERR_FORMAT,
                           "y4m: truncated: frame %" PRId64 " needs %" PRIu64 " bytes, found %" PRIu64, *total,
                           y->frame_bytes, src->size - src->pos);
    }
    return *total > 0 ? G4_OK : g4_fail(err, G4_ERR_FORMAT, "y4m: no frames");
}

/* Keep the wanted ones of all frames; yuv has room for one. */
static g4_status g4_y4m_take(const g4_media_limits *m, g4_source *src, const g4_y4m *y, uint8_t *yuv, g4_frames *frames,
                             g4_error *err)
{
    char line[G4_Y4M_LINE];
    for (int64_t i = 0; i < frames->total && frames->n < frames->n_wanted; i++) {
        const int wanted = i == g4_frames_next(frames);
        if (g4_halted(m->halt)) return g4_halt_check(m->halt, err);
        if (g4_source_line(src, line, sizeof line) || (wanted ? g4_source_read(src, yuv, (size_t)y->frame_bytes)
                                                              : g4_source_seek(src, src->pos + y->frame_bytes)))
            return g4_halted(m->halt) ? g4_halt_check(m->halt, err)
                                      : g4_fail(err, G4_ERR_IO, "y4m: the file changed while it was read");
        if (!wanted) continue;
        g4_pixels pixels;
        g4_status s = g4_pixels_alloc(m, "y4m", y->w, y->h, &pixels, err);
        if (s) return s;
        if (g4_y4m_rgb(y, yuv, pixels.rgb, m->halt)) {
            g4_pixels_free(m, &pixels);
            return g4_halt_check(m->halt, err);
        }
        s = g4_frames_add(m, frames, &pixels, err);
        if (s) return s;
    }
    return G4_OK;
}

/* The first line. */
static g4_status g4_y4m_open(const g4_media_limits *m, g4_source *src, g4_y4m *y, int *foreign, g4_error *err)
{
    char line[G4_Y4M_LINE] = { 0 };
    if (g4_source_line(src, line, sizeof line)) return g4_fail(err, G4_ERR_FORMAT, "y4m: truncated in the first line");
    return g4_y4m_header(m, y, line + G4_Y4M_MAGIC, foreign, err);
}

g4_status g4_y4m_size(const g4_media_limits *m, g4_source *src, g4_media_info *out, int *foreign, g4_error *err)
{
    g4_y4m y = { 0 };
    g4_status s = g4_y4m_open(m, src, &y, foreign, err);
    if (!s) s = g4_y4m_count(src, &y, &out->n_frames, err);
    if (s) return s;
    out->width = (int)y.w;
    out->height = (int)y.h;
    out->fps = y.fps;
    out->seconds = (double)out->n_frames / y.fps;
    return G4_OK;
}

g4_status g4_y4m_decode(const g4_media_limits *m, g4_source *src, g4_video *out, int *foreign, g4_error *err)
{
    g4_y4m y = { 0 };
    g4_status s = g4_y4m_open(m, src, &y, foreign, err);
    if (s) return s;
    const uint64_t start = src->pos;
    int64_t total;
    g4_frames frames = { .n = 0 };
    s = g4_y4m_count(src, &y, &total, err);
    if (!s) s = g4_frames_open(m, total, y.fps, &frames, err);
    if (!s) s = g4_frames_check(m, &frames, y.w, y.h, err);
    uint8_t *yuv = s ? NULL : g4_alloc(m->a, (size_t)y.frame_bytes, 1);
    if (!s && !yuv) s = g4_fail(err, G4_ERR_MEMORY, "y4m: %" PRIu64 " bytes of a frame: out of memory", y.frame_bytes);
    if (!s && g4_source_seek(src, start)) s = g4_fail(err, G4_ERR_IO, "y4m: cannot go back to byte %" PRIu64, start);
    if (!s) s = g4_y4m_take(m, src, &y, yuv, &frames, err);
    g4_free(m->a, yuv);
    if (s)
        g4_frames_free(m, &frames);
    else
        *out = (g4_video) { .frames = frames.frames, .seconds = frames.seconds, .n_frames = frames.n };
    return s;
}
