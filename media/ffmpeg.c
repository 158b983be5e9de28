/* ffmpeg.c - the ffmpeg program, for whatever is not read here, and ffprobe, which says what a file holds. They get an
 * open file as their standard input and never a name, they are told how to read it (formats.c), they may open no
 * network, and their time and memory are limited. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- The program ---------------------------------------------------------------------------- */

#define G4_FFMPEG_NOT_OURS "not PNG, JPEG, GIF, BMP, PPM, TIFF, TGA, ICO, DDS, PCX, SGI, QOI, XBM, WAV or y4m, and "
#define G4_FFMPEG_WORDS 40    /* of a command at most */
#define G4_FFMPEG_SECONDS 300 /* for a picture, or to tell what a file holds: a large TIFF on a busy machine takes 60 */
#define G4_FFMPEG_LONG_SECONDS 3600 /* for sound and video */

static size_t g4_add_words(const char **words, size_t n, const char *const *more)
{
    for (size_t i = 0; more[i] && n + 1 < G4_FFMPEG_WORDS; i++) words[n++] = more[i];
    words[n] = NULL;
    return n;
}

static uint64_t g4_input_bytes(const g4_input *in)
{
    struct stat st;
    return fstat(in->fd, &st) == 0 && st.st_size > 0 ? (uint64_t)st.st_size : 0;
}

/* Pixels that a decoder may make of a file of so many bytes. It counts them in whole blocks, which a picture need not
 * fill, so that it may take a few more than the limits say: what it makes is looked at again. */
static uint64_t g4_decoder_pixels(const g4_media_limits *m, uint64_t bytes)
{
    uint64_t n = bytes < UINT64_MAX / m->max_pixels_per_byte ? bytes * m->max_pixels_per_byte : UINT64_MAX;
    if (n > m->max_pixels) n = m->max_pixels;
    if (n < G4_PIXELS_FREE) n = G4_PIXELS_FREE;
    return n < INT32_MAX / 17 * 16 ? n + n / 16 : INT32_MAX; /* it knows no larger number */
}

/* A decoder that met the limit has said so, with a size. */
static g4_status g4_decoder_refuses(const g4_media_limits *m, const g4_input *in, const char *size, g4_error *err)
{
    int w = 0, h = 0;
    if (sscanf(size, "Picture size %9dx%9d", &w, &h) != 2 || w <= 0 || h <= 0) w = h = INT32_MAX;
    g4_status s = g4_pixels_check(m, "picture", (uint64_t)w, (uint64_t)h, err);
    if (!s) s = g4_pixels_check_bytes(m, "picture", (uint64_t)w, (uint64_t)h, g4_input_bytes(in), err);
    return s ? s : g4_fail(err, G4_ERR_UNSUPPORTED, "a picture of %d x %d is more than the limit of pixels", w, h);
}

/* What the end of a program says about the file. */
static g4_status g4_ffmpeg_judge(const g4_media_limits *m, const char *program, const g4_input *in,
                                 const g4_child_end *end, int seconds, g4_error *err)
{
    const char *const size = strstr(end->said, "max pixel count") ? strstr(end->said, "Picture size") : NULL;
    char how[64] = "it ended without a message";
    if (end->is_late)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "%.40s took more than the limit of %d seconds", program, seconds);
    if (size && !end->is_stopped) return g4_decoder_refuses(m, in, size, err);
    if (end->is_stopped || (!end->reason && end->status == 0)) return G4_OK;
    if (end->reason || end->status == 126 || end->status == 127) /* as a shell says that it could not be started */
        return g4_fail(err, G4_ERR_UNSUPPORTED,
                       G4_FFMPEG_NOT_OURS "the program \"%.60s\" for other formats could not be started: %s", program,
                       end->reason    ? strerror(end->reason)
                       : end->said[0] ? end->said
                                      : "it is not there");
    const char *const stream = strstr(end->said, "matches no streams") ? strstr(end->said, "'0:") : NULL;
    if (stream) /* as -map asked for it */
        return g4_fail(err, G4_ERR_FORMAT, "there is no %s in it",
                       stream[3] == 'a'   ? "sound"
                       : stream[3] == 'V' ? "video"
                                          : "picture");
    if (end->status > 128) snprintf(how, sizeof how, "signal %d ended it", end->status - 128);
    return g4_fail(err, G4_ERR_FORMAT, "%.40s cannot read it: %s", program, end->said[0] ? end->said : how);
}

/* Run ffmpeg or ffprobe on the input, with options before it and behind it, for `seconds` unless the user said for how
 * long; what it writes goes to sink. It opens its standard input by the name that the system has for it, since it seeks
 * in files only: an index may stand at the end. Where there is no such name, it reads it as a pipe. */
static g4_status g4_ffmpeg_run(const g4_media_limits *m, const char *program, const g4_input *in,
                               const char *const *before, const char *const *behind, int seconds, g4_sink_fn sink,
                               void *ctx, g4_error *err)
{
    static const char *const quiet[] = { "-v", "error", "-protocol_whitelist", "file,pipe", NULL };
    if (!m->ffmpeg[0]) return g4_fail(err, G4_ERR_UNSUPPORTED, G4_FFMPEG_NOT_OURS "no ffmpeg program may be started");
    const char *const decoder[] = { in->format.decoder ? "-c:v" : NULL, in->format.decoder, NULL };
    const char *const url = access("/dev/fd", X_OK) == 0 ? "file:/dev/fd/0" : "pipe:0";
    char pixels[24];
    snprintf(pixels, sizeof pixels, "%" PRIu64, g4_decoder_pixels(m, g4_input_bytes(in)));
    const char *const input[] = { "-max_pixels", pixels, "-f", in->format.demuxer, "-i", url, NULL };
    const char *words[G4_FFMPEG_WORDS] = { program, NULL };
    size_t n = g4_add_words(words, 1, quiet);
    n = g4_add_words(words, n, before);
    n = g4_add_words(words, n, decoder);
    n = g4_add_words(words, n, input);
    g4_add_words(words, n, behind);
    lseek(in->fd, 0, SEEK_SET);
    if (m->max_program_seconds > 0) seconds = m->max_program_seconds;
    g4_child_end end;
    const g4_status s = g4_child_run(m, words, in->fd, seconds, sink, ctx, &end, err);
    return s ? s : g4_ffmpeg_judge(m, program, in, &end, seconds, err);
}

/* For sound and video. */
static g4_status g4_ffmpeg(const g4_media_limits *m, const g4_input *in, const char *const *args, g4_sink_fn sink,
                           void *ctx, g4_error *err)
{
    static const char *const before[] = { "-nostdin", NULL };
    return g4_ffmpeg_run(m, m->ffmpeg, in, before, args, G4_FFMPEG_LONG_SECONDS, sink, ctx, err);
}

/* The same with args[0] filled in as the option that passes every frame once: its name changed between versions of the
 * program. */
static g4_status g4_ffmpeg_each(const g4_media_limits *m, const g4_input *in, const char **args, g4_sink_fn sink,
                                void *ctx, g4_error *err)
{
    g4_error first = { G4_OK, "" };
    args[0] = "-fps_mode";
    const g4_status s = g4_ffmpeg(m, in, args, sink, ctx, &first);
    if (s && strstr(first.message, "fps_mode")) {
        args[0] = "-vsync";
        return g4_ffmpeg(m, in, args, sink, ctx, err);
    }
    return s ? g4_fail(err, s, "%s", first.message) : G4_OK;
}

#define G4_SWSCALE_EXACT "accurate_rnd+full_chroma_int+full_chroma_inp"

/* ---- Pictures ------------------------------------------------------------------------------- */

/* PPM files, or PAM with RGB or RGBA, which become pixels over white as they arrive: the frames of a video, or a
 * picture. */
typedef struct {
    const g4_media_limits *m;
    g4_frames *frames; /* NULL: there is one picture */
    char head[128];    /* of a picture */
    size_t n_head;
    g4_pixels picture; /* the one being filled; rgb is NULL between two */
    size_t n, size;    /* bytes of its RGB: those that are there, and all */
    uint32_t channels; /* 3, or 4 with alpha */
    uint8_t cut[4];    /* a pixel of which the end has not come yet, ... */
    size_t n_cut;      /* ... and bytes of it */
    int is_done;       /* the only picture is there */
    const char *kind;  /* begins messages */
    g4_error *err;
    g4_status status;
} g4_picture_stream;

/* Take memory for a picture whose head has come. */
static g4_status g4_picture_stream_begin(g4_picture_stream *p, int w, int h, int channels, int max)
{
    if (w <= 0 || h <= 0 || max != 255 || (channels != 3 && channels != 4))
        return g4_fail(p->err, G4_ERR_FORMAT, "%s: %d x %d samples of %d, %d a pixel, came from %.40s", p->kind, w, h,
                       max, channels, p->m->ffmpeg);
    const g4_status s = p->frames ? g4_frames_check(p->m, p->frames, (uint64_t)w, (uint64_t)h, p->err) : G4_OK;
    p->channels = (uint32_t)channels;
    p->size = (size_t)w * (size_t)h * 3;
    p->n = p->n_head = 0;
    return s ? s : g4_pixels_alloc(p->m, p->kind, (uint64_t)w, (uint64_t)h, &p->picture, p->err);
}

/* One more character of a head, which ends with a line: "P6\nwidth height\n255\n", or PAM's lines of a name and a
 * value. */
static g4_status g4_picture_stream_head(g4_picture_stream *p, char c)
{
    int w = 0, h = 0, channels = 3, max = 0, end = 0;
    p->head[p->n_head++] = c;
    p->head[p->n_head] = 0;
    if (c == '\n' && sscanf(p->head, "P6 %9d %9d %3d%n", &w, &h, &max, &end) < 3)
        sscanf(p->head, "P7 WIDTH %9d HEIGHT %9d DEPTH %1d MAXVAL %3d TUPLTYPE %*31s ENDHDR%n", &w, &h, &channels, &max,
               &end);
    if (end > 0 && end == (int)p->n_head - 1) return g4_picture_stream_begin(p, w, h, channels, max);
    if (p->n_head + 1 == sizeof p->head)
        return g4_fail(p->err, G4_ERR_FORMAT, "%s: what came from %.40s does not start as expected", p->kind,
                       p->m->ffmpeg);
    return G4_OK;
}

static void g4_picture_stream_blend(g4_picture_stream *p, const uint8_t *rgba)
{
    for (int c = 0; c < 3; c++) p->picture.rgb[p->n++] = g4_over_white(rgba[c], rgba[3]);
}

/* Pixels from n bytes, up to the picture's end. Returns how many bytes they took. */
static size_t g4_picture_stream_fill(g4_picture_stream *p, const uint8_t *data, size_t n)
{
    size_t used = 0;
    if (p->channels == 3) {
        used = g4_min_size(n, p->size - p->n);
        memcpy(p->picture.rgb + p->n, data, used);
        p->n += used;
        return used;
    }
    while (used < n && p->n < p->size) {
        if (p->n_cut == 0 && n - used >= 4) {
            g4_picture_stream_blend(p, data + used);
            used += 4;
            continue;
        }
        p->cut[p->n_cut++] = data[used++];
        if (p->n_cut == 4) g4_picture_stream_blend(p, p->cut);
        p->n_cut &= 3;
    }
    return used;
}

/* A picture is whole. Nonzero: no more are wanted. */
static int g4_picture_stream_end(g4_picture_stream *p)
{
    p->is_done = !p->frames;
    if (p->frames) p->status = g4_frames_add(p->m, p->frames, &p->picture, p->err);
    return p->status || (p->frames && p->frames->n == p->frames->n_wanted);
}

static int g4_picture_sink(void *ctx, const uint8_t *data, size_t n)
{
    g4_picture_stream *p = ctx;
    while (n > 0 && !p->is_done) { /* how the program ends is worth knowing when it has given its picture */
        size_t used = 1;
        if (!p->picture.rgb) {
            p->status = g4_picture_stream_head(p, (char)*data);
            if (p->status) return 1;
        } else {
            used = g4_picture_stream_fill(p, data, n);
            if (p->n == p->size && g4_picture_stream_end(p)) return 1;
        }
        data += used;
        n -= used;
    }
    return 0;
}

/* Formats that hold a picture for each file, as ffmpeg names them. */
static int g4_is_picture_format(const char *format)
{
    const size_t n = strlen(format);
    return (n > 5 && !strcmp(format + n - 5, "_pipe")) || !strcmp(format, "image2");
}

/* What is read by such a demuxer is one stream, which the demuxer knows at once. */
static int g4_is_one_stream(const char *demuxer)
{
    return g4_is_picture_format(demuxer) || !strcmp(demuxer, "ivf") || !strcmp(demuxer, "hevc");
}

/* For pictures, with more options before the input. What an old program does not know is not asked for again: a better
 * decoder, and not to look for streams that are known, for which it would decode the picture twice. */
static g4_status g4_ffmpeg_still(const g4_media_limits *m, const g4_input *in, const char *const *more,
                                 const char *const *behind, g4_sink_fn sink, void *ctx, g4_error *err)
{
    static const char *const quick[] = { "-nofind_stream_info", NULL }, *const none[] = { NULL };
    g4_input asked = *in;
    int is_known = g4_is_one_stream(in->format.demuxer);
    if (in->format.better) asked.format.decoder = in->format.better;
    for (;;) {
        const char *before[G4_FFMPEG_WORDS] = { "-nostdin" };
        g4_add_words(before, g4_add_words(before, 1, more), is_known ? quick : none);
        g4_error first = { G4_OK, "" };
        const g4_status s = g4_ffmpeg_run(m, m->ffmpeg, &asked, before, behind, G4_FFMPEG_SECONDS, sink, ctx, &first);
        if (s && is_known && strstr(first.message, "find_stream_info")) {
            is_known = 0;
        } else if (s && asked.format.better && strstr(first.message, "Unknown decoder")) {
            asked.format = (g4_media_format) { .demuxer = in->format.demuxer, .decoder = in->format.decoder };
        } else {
            return s ? g4_fail(err, s, "%s", first.message) : G4_OK;
        }
    }
}

g4_status g4_ffmpeg_image(const g4_media_limits *m, const g4_input *in, const g4_turn *turn, g4_image *out,
                          g4_error *err)
{
    static const char *const args[] = {
        "-map",       "0:v:0",          "-frames:v", "1",          "-c:v", "pam", "-vf", "format=rgb24|rgba",
        "-sws_flags", G4_SWSCALE_EXACT, "-f",        "image2pipe", "-",    NULL
    };
    const char *const before[] = { turn ? "-noautorotate" : NULL, NULL };
    g4_picture_stream p = { .m = m, .kind = "picture", .err = err };
    g4_status s = g4_ffmpeg_still(m, in, before, args, g4_picture_sink, &p, err);
    if (p.status) s = p.status;
    if (!s && !p.is_done)
        s = p.picture.rgb
                ? g4_fail(err, G4_ERR_FORMAT, "%.40s: %zu of the picture's %zu bytes came", m->ffmpeg, p.n, p.size)
                : g4_fail(err, G4_ERR_FORMAT, "%.40s found no picture in it", m->ffmpeg);
    if (!s && turn) s = g4_pixels_orient(m, &p.picture, g4_orientation(turn), err);
    if (s)
        g4_pixels_free(m, &p.picture);
    else
        *out = (g4_image) { .pixels = p.picture.rgb, .width = p.picture.w, .height = p.picture.h };
    return s;
}

/* Raw samples. */
typedef struct {
    uint8_t *data;
    size_t n, size;
    int too_long;
} g4_raw_stream;

static int g4_raw_sink(void *ctx, const uint8_t *data, size_t n)
{
    g4_raw_stream *r = ctx;
    r->too_long = n > r->size - r->n;
    if (r->too_long) return 1;
    memcpy(r->data + r->n, data, n);
    r->n += n;
    return 0;
}

g4_status g4_ffmpeg_raw(const g4_media_limits *m, const g4_input *in, const char *filter, uint32_t n, uint8_t *out,
                        size_t size, g4_error *err)
{
    /* for one picture, more threads cost more than they save */
    const char *const before[] = { "-noautorotate", n == 1 ? "-threads" : NULL, "1", NULL };
    char frames[16];
    snprintf(frames, sizeof frames, "%" PRIu32, n);
    const char *behind[] = { "-map", "0:v:0",    "-frames:v",  frames,           "-f",  "rawvideo",
                             "-c:v", "rawvideo", "-sws_flags", G4_SWSCALE_EXACT, "-vf", filter ? filter : "null",
                             "-",    NULL };
    g4_raw_stream r = { out, 0, size, 0 };
    const g4_status s = g4_ffmpeg_still(m, in, before, behind, g4_raw_sink, &r, err);
    if (s) return s;
    if (r.too_long || r.n < size)
        return g4_fail(err, G4_ERR_FORMAT, "%.40s: %s than the %zu bytes of the picture's size", m->ffmpeg,
                       r.too_long ? "more" : "less", size);
    return G4_OK;
}

/* ---- Sound ---------------------------------------------------------------------------------- */

/* A WAV file that arrives in pieces: its channels are averaged on the way. */
typedef struct {
    const g4_media_limits *m;
    uint64_t file_bytes;
    uint8_t head[4096]; /* the file up to its samples, then a frame that is not complete yet */
    size_t n_head;
    g4_wav_format f;
    size_t frame; /* bytes of one sample of all channels; 0: still in the header */
    float *x;     /* (cap), n of them there */
    size_t n, cap;
    g4_error *err;
    g4_status status;
} g4_wav_stream;

/* Room for one more sample. */
static g4_status g4_wav_stream_grow(g4_wav_stream *w)
{
    if (w->n < w->cap) return G4_OK;
    const uint64_t limit = g4_wav_limit(w->m, &w->f, w->file_bytes);
    if (w->n >= limit) return g4_wav_too_long(w->m, &w->f, w->file_bytes, w->err);
    uint64_t cap = w->cap ? 2 * (uint64_t)w->cap : 1 << 18;
    if (cap > limit) cap = limit;
    float *more = cap > SIZE_MAX / sizeof *more
                      ? NULL
                      : g4_grow(w->m->a, w->x, w->n * sizeof *more, (size_t)cap, sizeof *more, w->m->halt);
    if (!more) return g4_fail(w->err, G4_ERR_MEMORY, "%" PRIu64 " samples: out of memory", cap);
    w->x = more;
    w->cap = (size_t)cap;
    return G4_OK;
}

static g4_status g4_wav_stream_add(g4_wav_stream *w, const uint8_t *frame)
{
    const g4_status s = g4_wav_stream_grow(w);
    if (s) return s;
    const float v = g4_wav_mono(&w->f, frame);
    w->x[w->n++] = isfinite(v) ? v : 0; /* what is not finite is a decoder's slip */
    return G4_OK;
}

/* Move up to n bytes into the head, until it holds `size`. Returns how many. */
static size_t g4_wav_stream_hold(g4_wav_stream *w, const uint8_t *data, size_t n, size_t size)
{
    if (n > size - w->n_head) n = size - w->n_head;
    memcpy(w->head + w->n_head, data, n);
    w->n_head += n;
    return n;
}

/* Read the header as far as it is there. *used: bytes of data that belong to it. */
static g4_status g4_wav_stream_header(g4_wav_stream *w, const uint8_t *data, size_t n, size_t *used)
{
    const size_t before = w->n_head;
    size_t pos;
    *used = g4_wav_stream_hold(w, data, n, sizeof w->head);
    const g4_status s = g4_wav_chunks(w->head, w->n_head, &w->f, &pos, w->m->halt, w->err);
    if (s) return s;
    if (!g4_wav_has_samples(w->head, w->n_head, &w->f, pos)) {
        if (*used == n) return G4_OK;
        return g4_fail(w->err, G4_ERR_FORMAT, "sound: no data in the first %zu bytes", sizeof w->head);
    }
    *used = pos + G4_WAV_CHUNK_HEAD - before;
    w->n_head = 0;
    w->frame = (size_t)w->f.bytes * w->f.channels;
    if (w->frame > sizeof w->head)
        return g4_fail(w->err, G4_ERR_UNSUPPORTED, "sound: %u channels", (unsigned)w->f.channels);
    return G4_OK;
}

static int g4_wav_stream_sink(void *ctx, const uint8_t *data, size_t n)
{
    g4_wav_stream *w = ctx;
    while (n > 0 && !w->status) {
        size_t used;
        if (w->frame == 0) {
            w->status = g4_wav_stream_header(w, data, n, &used);
        } else if (w->n_head == 0 && n >= w->frame) {
            used = w->frame;
            w->status = g4_wav_stream_add(w, data);
        } else {
            used = g4_wav_stream_hold(w, data, n, w->frame);
            if (w->n_head == w->frame) {
                w->status = g4_wav_stream_add(w, w->head);
                w->n_head = 0;
            }
        }
        data += used;
        n -= used;
    }
    return w->status != G4_OK;
}

/* The first sound stream at its own rate and channels, so that downmix and resampling are the same as for WAV. */
g4_status g4_ffmpeg_audio(const g4_media_limits *m, const g4_input *in, g4_audio *out, g4_error *err)
{
    static const char *const args[] = { "-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "-", NULL };
    g4_wav_stream w = { .m = m, .file_bytes = g4_input_bytes(in), .err = err };
    g4_status s = g4_ffmpeg(m, in, args, g4_wav_stream_sink, &w, err);
    if (w.status) s = w.status;
    if (!s && w.n == 0) s = g4_fail(err, G4_ERR_FORMAT, "%.40s found no sound in it", m->ffmpeg);
    if (!s) return g4_resample(m, w.x, w.n, w.f.rate, out, err);
    g4_free(m->a, w.x);
    return s;
}

/* ---- What a video holds --------------------------------------------------------------------- */

/* The frame list of a video as the framecrc muxer prints it: "#tb 0: 1/90000", "#media_type 1: audio", "stream, dts,
 * pts, duration, size, crc". */
typedef struct {
    const g4_media_limits *m;
    char line[256];
    size_t n;                                    /* characters of the line */
    int64_t frames, timed;                       /* of stream 0; timed: those with a time */
    double duration, first, last, last_duration; /* in units of its time base; duration: the sum */
    double time_base;                            /* seconds */
    int has_sound;
    int64_t *times; /* (cap), timed of them there, rising: where the times of frames are wanted */
    int64_t cap;
    int failed; /* no memory for them, or too many */
} g4_probe;

#define G4_TIMES_MAX 16777216 /* frames whose times are kept, 155 hours at 30 a second */
#define G4_TIMES_REORDERED 32 /* frames that may stand before one that is shown earlier; codecs allow 16 */

/* Frames come in the order in which they are decoded; their times go where they belong. */
static void g4_probe_time(g4_probe *p, int64_t pts)
{
    if (p->timed == p->cap) {
        const int64_t cap = p->cap ? 2 * p->cap : 4096;
        int64_t *more = cap > G4_TIMES_MAX ? NULL
                                           : g4_grow(p->m->a, p->times, (size_t)p->cap * sizeof *more, (size_t)cap,
                                                     sizeof *more, p->m->halt);
        p->failed = !more;
        if (!more) return;
        p->times = more;
        p->cap = cap;
    }
    int64_t at = p->timed;
    const int64_t least = at > G4_TIMES_REORDERED ? at - G4_TIMES_REORDERED : 0;
    for (; at > least && p->times[at - 1] > pts; at--) p->times[at] = p->times[at - 1];
    p->times[at] = pts;
}

static void g4_probe_frame(g4_probe *p, int64_t pts, int64_t duration)
{
    const double time = (double)pts, length = duration > 0 ? (double)duration : 0;
    p->duration += length;
    p->frames++;
    if (pts == INT64_MIN) return; /* it has no time */
    if (p->m->frame_times) g4_probe_time(p, pts);
    if (p->failed) return;
    if (p->timed == 0 || time < p->first) p->first = time;
    if (p->timed == 0 || time > p->last) {
        p->last = time;
        p->last_duration = length;
    }
    p->timed++;
}

static void g4_probe_line(g4_probe *p)
{
    int stream = -1, num = 0, den = 0;
    long long dts = 0, pts = 0, duration = 0;
    if (sscanf(p->line, "#tb %d: %d/%d", &stream, &num, &den) == 3) {
        if (stream == 0 && num > 0 && den > 0) p->time_base = (double)num / den;
    } else if (!strcmp(p->line, "#media_type 1: audio")) {
        p->has_sound = 1;
    } else if (sscanf(p->line, "%d, %lld, %lld, %lld,", &stream, &dts, &pts, &duration) == 4 && stream == 0) {
        g4_probe_frame(p, pts, duration);
    }
}

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
        g4_probe_line(p);
        if (p->failed) return 1;
    }
    return 0;
}

/* How a pass of ffmpeg that listed frames ends. */
static g4_status g4_probe_close(g4_status s, const g4_probe *p, g4_error *err)
{
    if (s || !p->failed) return s;
    const g4_status halted = g4_halt_check(p->m->halt, err);
    if (halted) return halted;
    return p->cap < G4_TIMES_MAX
               ? g4_fail(err, G4_ERR_MEMORY, "video: the times of %" PRId64 " frames: out of memory", p->timed)
               : g4_fail(err, G4_ERR_UNSUPPORTED, "video: more than %d frames", G4_TIMES_MAX);
}

/* Give the frames that were kept the times that the file gives them, if it gives each one a time. */
static void g4_probe_times(const g4_probe *p, g4_frames *f)
{
    if (!p->times || p->timed != f->total || p->time_base <= 0) return;
    for (int i = 0; i < f->n; i++) {
        const int64_t index = i * f->total / f->n_wanted;
        const double seconds = ((double)p->times[index] - (double)p->times[0]) * p->time_base;
        f->seconds[i] = i > 0 ? fmax(f->seconds[i - 1], seconds) : seconds;
    }
}

/* Average frames a second: frames / time, where the time is known to about two units of the time base. If a usual rate
 * (a whole number, or that times 1000 / 1001) lies within that error, it is what the file means: Matroska rounds 1/30 s
 * to 33 ms. */
static double g4_probe_fps(const g4_probe *p)
{
    const double n = (double)p->frames;
    double time = p->duration, slack = 0;
    if (p->timed == p->frames && p->last > p->first && n > 1) {
        time = p->last - p->first + (p->last_duration > 0 ? p->last_duration : (p->last - p->first) / (n - 1));
        slack = 2;
    }
    if (p->time_base <= 0 || time <= 0) return 24; /* as the reference, when a file does not say */
    const double low = n / ((time + slack) * p->time_base), high = n / (fmax(time - slack, 0.5) * p->time_base);
    const double fps = n / (time * p->time_base);
    double whole = rint(fps);
    if (whole >= 1 && whole >= low && whole <= high) return whole;
    whole = rint(fps * 1.001);
    if (whole >= 1 && whole / 1.001 >= low && whole / 1.001 <= high) return whole / 1.001;
    return fps;
}

/* ---- Frames --------------------------------------------------------------------------------- */

/* One decoding pass that keeps the wanted ones of `total` frames. With n wanted, frame k is i * total / n for some i
 * where a multiple of total / n lies in [k, k + 1): where ceil(k * n / total) grows. */
static g4_status g4_ffmpeg_frames(const g4_media_limits *m, const g4_input *in, int64_t total, double fps,
                                  g4_frames *out, g4_error *err)
{
    if (total == 0) return g4_fail(err, G4_ERR_FORMAT, "%.40s found no video in it", m->ffmpeg);
    g4_status s = g4_frames_open(m, total, fps, out, err);
    if (s) return s;
    char select[160];
    snprintf(select, sizeof select, "select=gt(ceil((n+1)*%d/%" PRId64 ")\\,ceil(n*%d/%" PRId64 "))", out->n_wanted,
             total, out->n_wanted, total);
    const char *args[] = { NULL,  "passthrough", "-map",  "0:V:0", "-vf",        select, "-c:v",
                           "ppm", "-pix_fmt",    "rgb24", "-f",    "image2pipe", "-",    NULL };
    g4_picture_stream p = { .m = m, .frames = out, .kind = "video", .err = err };
    s = g4_ffmpeg_each(m, in, args, g4_picture_sink, &p, err);
    g4_pixels_free(m, &p.picture);
    return p.status ? p.status : s;
}

/* The sampled frames of a video, of which `packets` tells the rate and how many there should be. When fewer come out,
 * those that decode are counted and sampled again. */
static g4_status g4_ffmpeg_sample(const g4_media_limits *m, const g4_input *in, const g4_probe *packets, g4_frames *out,
                                  g4_error *err)
{
    const char *args[] = { NULL, "passthrough", "-map", "0:V:0", "-f", "framecrc", "-", NULL };
    const double fps = g4_probe_fps(packets);
    g4_status s = g4_ffmpeg_frames(m, in, packets->frames, fps, out, err);
    if (!s && out->n == out->n_wanted) g4_probe_times(packets, out);
    if (s || out->n == out->n_wanted) return s;
    g4_frames_free(m, out);
    g4_probe decoded = { .m = m };
    s = g4_probe_close(g4_ffmpeg_each(m, in, args, g4_probe_sink, &decoded, err), &decoded, err);
    if (!s) s = g4_ffmpeg_frames(m, in, decoded.frames, fps, out, err);
    if (!s && out->n < out->n_wanted)
        s = g4_fail(err, G4_ERR_FORMAT, "video: %d frames decoded, expected %d", out->n, out->n_wanted);
    if (!s) g4_probe_times(&decoded, out);
    g4_free(m->a, decoded.times);
    return s;
}

g4_status g4_ffmpeg_video(const g4_media_limits *m, const g4_input *in, g4_video *out, g4_error *err)
{
    static const char *const args[] = { "-map", "0:V:0", "-map", "0:a:0?", "-c", "copy", "-f", "framecrc", "-", NULL };
    g4_probe packets = { .m = m };
    g4_frames frames = { .n = 0 };
    g4_audio *sound = NULL;
    g4_status s = g4_probe_close(g4_ffmpeg(m, in, args, g4_probe_sink, &packets, err), &packets, err);
    if (!s) s = g4_ffmpeg_sample(m, in, &packets, &frames, err);
    g4_free(m->a, packets.times);
    if (!s && m->want_sound && packets.has_sound) {
        sound = g4_alloc(m->a, 1, sizeof *sound);
        s = sound ? g4_ffmpeg_audio(m, in, sound, err) : g4_fail(err, G4_ERR_MEMORY, "video: out of memory");
    }
    if (s) {
        g4_frames_free(m, &frames);
        g4_free(m->a, sound);
        return s;
    }
    *out = (g4_video) { .frames = frames.frames, .seconds = frames.seconds, .n_frames = frames.n, .sound = sound };
    return G4_OK;
}

/* ---- What a file holds ----------------------------------------------------------------------- */

/* A stream as ffprobe describes it: lines of key=value, from [STREAM] to [/STREAM]. */
typedef struct {
    int is_video, is_sound, is_cover; /* cover: a picture that belongs to a sound file */
    int width, height, rate, channels, turn;
    int64_t frames;
    double seconds, fps;
} g4_described_stream;

typedef struct {
    char line[256];
    size_t n; /* characters of the line */
    g4_described_stream stream;
    int in_format, n_video, n_sound;
    g4_media_info *info;
} g4_description;

/* A stream is complete: the first of each kind counts. */
static void g4_description_take(g4_description *d)
{
    const g4_described_stream *s = &d->stream;
    g4_media_info *info = d->info;
    if (s->is_video && !s->is_cover && d->n_video++ == 0) {
        const int is_turned = s->turn % 180 != 0;
        info->width = is_turned ? s->height : s->width;
        info->height = is_turned ? s->width : s->height;
        info->n_frames = s->frames;
        info->fps = s->fps;
        if (s->seconds > 0) info->seconds = s->seconds;
    }
    if (s->is_sound && d->n_sound++ == 0) {
        info->sample_rate = s->rate;
        info->channels = s->channels;
        if (info->seconds <= 0) info->seconds = s->seconds;
    }
}

/* A number from 0 to `limit`; 0 for anything else, such as N/A. */
static double g4_described_number(const char *text, double limit)
{
    const double v = strtod(text, NULL);
    return v > 0 && v <= limit ? v : 0;
}

static int g4_described_int(const char *text) { return (int)g4_described_number(text, INT32_MAX); }

static void g4_description_value(g4_description *d, const char *key, const char *value)
{
    g4_described_stream *s = &d->stream;
    if (d->in_format) {
        if (!strcmp(key, "format_name")) snprintf(d->info->format, sizeof d->info->format, "%s", value);
        if (!strcmp(key, "duration") && d->info->seconds <= 0) d->info->seconds = g4_described_number(value, 1e9);
        return;
    }
    if (!strcmp(key, "codec_type")) {
        s->is_video = !strcmp(value, "video");
        s->is_sound = !strcmp(value, "audio");
    }
    if (!strcmp(key, "width")) s->width = g4_described_int(value);
    if (!strcmp(key, "height")) s->height = g4_described_int(value);
    if (!strcmp(key, "sample_rate")) s->rate = g4_described_int(value);
    if (!strcmp(key, "channels")) s->channels = g4_described_int(value);
    if (!strcmp(key, "nb_frames")) s->frames = g4_described_int(value);
    if (!strcmp(key, "duration")) s->seconds = g4_described_number(value, 1e9);
    if (!strcmp(key, "rotation")) s->turn = (int)strtol(value, NULL, 10);
    if (!strcmp(key, "DISPOSITION:attached_pic")) s->is_cover = value[0] == '1';
    if (!strcmp(key, "avg_frame_rate")) {
        const char *slash = strchr(value, '/');
        const double by = slash ? g4_described_number(slash + 1, 1e9) : 1;
        if (by > 0) s->fps = g4_described_number(value, 1e9) / by;
    }
}

static void g4_description_line(g4_description *d)
{
    char *equals = strchr(d->line, '=');
    if (!strcmp(d->line, "[STREAM]")) memset(&d->stream, 0, sizeof d->stream);
    if (!strcmp(d->line, "[/STREAM]")) g4_description_take(d);
    if (!strcmp(d->line, "[FORMAT]")) d->in_format = 1;
    if (!equals) return;
    *equals = 0;
    g4_description_value(d, d->line, equals + 1);
}

static int g4_description_sink(void *ctx, const uint8_t *data, size_t n)
{
    g4_description *d = ctx;
    for (size_t i = 0; i < n; i++) {
        if (data[i] != '\n') {
            if (data[i] != '\r' && d->n + 1 < sizeof d->line) d->line[d->n++] = (char)data[i];
            continue;
        }
        d->line[d->n] = 0;
        d->n = 0;
        g4_description_line(d);
    }
    return 0;
}

/* What kind of medium these streams are, and what follows from that. */
static g4_status g4_description_end(const g4_description *d, const g4_media_limits *m, uint64_t bytes, g4_error *err)
{
    g4_media_info *info = d->info;
    if (d->n_video == 0 && d->n_sound == 0)
        return g4_fail(err, G4_ERR_FORMAT, "ffprobe found no picture, sound or video in it");
    if (d->n_video == 0) {
        info->kind = G4_MEDIA_AUDIO;
        return G4_OK;
    }
    const uint64_t w = (uint64_t)info->width, h = (uint64_t)info->height;
    g4_status s = g4_pixels_check(m, "picture", w, h, err);
    if (!s) s = g4_pixels_check_bytes(m, "picture", w, h, bytes, err);
    if (s) return s;
    const int is_picture = g4_is_picture_format(info->format) || info->n_frames == 1 || info->fps <= 0;
    info->kind = d->n_sound == 0 && is_picture ? G4_MEDIA_IMAGE : G4_MEDIA_VIDEO;
    if (info->kind == G4_MEDIA_IMAGE) {
        info->n_frames = 0;
        info->seconds = info->fps = 0;
    } else if (info->n_frames == 0) {
        info->n_frames = (int64_t)rint(fmin(info->seconds * info->fps, INT32_MAX));
    }
    return G4_OK;
}

/* The program's name with its last "ffmpeg" replaced. */
static g4_status g4_ffprobe_name(const g4_media_limits *m, g4_buf *name, g4_error *err)
{
    const char *last = NULL;
    for (const char *p = m->ffmpeg; (p = strstr(p, "ffmpeg")) != NULL; p++) last = p;
    if (!last && m->ffmpeg[0])
        return g4_fail(err, G4_ERR_UNSUPPORTED,
                       G4_FFMPEG_NOT_OURS "the name \"%.60s\" has no ffmpeg to become ffprobe, which tells of others",
                       m->ffmpeg);
    if (last) {
        g4_buf_add(name, m->ffmpeg, (size_t)(last - m->ffmpeg));
        g4_buf_str(name, "ffprobe");
        g4_buf_str(name, last + strlen("ffmpeg"));
    }
    return name->failed ? g4_fail(err, G4_ERR_MEMORY, "ffprobe: out of memory") : G4_OK;
}

g4_status g4_ffmpeg_probe(const g4_media_limits *m, const g4_input *in, g4_media_info *out, g4_error *err)
{
    static const char *const before[] = { NULL };
    static const char *const entries =
        "stream=codec_type,width,height,avg_frame_rate,nb_frames,sample_rate,channels,duration:"
        "stream_disposition=attached_pic:stream_side_data=rotation:format=format_name,duration";
    const char *const behind[] = { "-show_entries", entries, "-of", "default", NULL };
    g4_buf name = { m->a, NULL, 0, 0, 0 };
    g4_description d = { .info = out };
    g4_status s = g4_ffprobe_name(m, &name, err);
    if (!s)
        s = g4_ffmpeg_run(m, name.data ? name.data : "", in, before, behind, G4_FFMPEG_SECONDS, g4_description_sink, &d,
                          err);
    if (!s) s = g4_description_end(&d, m, g4_input_bytes(in), err);
    g4_buf_free(&name);
    return s;
}
