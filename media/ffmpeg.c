/* ffmpeg.c - the ffmpeg program, for whatever is not read here: started without a shell, its standard output read
 * through a pipe while its messages are drained from another, ended and reaped in every case. It may open files only,
 * no network. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ; /* the program runs in the environment of this process */

/* ---- The program ---------------------------------------------------------------------------- */

typedef int (*g4_sink_fn)(void *ctx, const uint8_t *data, size_t n); /* nonzero: stop, no more is wanted */

typedef struct {
    pid_t pid;
    int out[2], messages[2]; /* pipes: the end to read, the end to write; -1: closed */
    char said[161];          /* the first line of its messages, which says most */
    size_t n_said;
    int line_ended;
} g4_child;

#define G4_FFMPEG_NOT_OURS "not PNG, JPEG, PPM, WAV or y4m, and "

static void g4_close_pipe(int ends[2])
{
    for (int i = 0; i < 2; i++) {
        if (ends[i] >= 0) close(ends[i]);
        ends[i] = -1;
    }
}

static int g4_open_pipe(int ends[2]) /* nonzero: failed, for errno's reason */
{
    if (pipe(ends) != 0) {
        ends[0] = ends[1] = -1;
        return 1;
    }
    return fcntl(ends[0], F_SETFD, FD_CLOEXEC) == -1 || fcntl(ends[1], F_SETFD, FD_CLOEXEC) == -1;
}

/* The program's name and arguments: `args` (NULL at the end) behind "-i input". The list is NULL when memory is out;
 * its strings are in *text. */
static char **g4_ffmpeg_arguments(const g4_media_limits *m, const g4_input *in, const char *const *args, g4_buf *text)
{
    static const char *const options[] = { "-v", "error", "-nostdin", "-protocol_whitelist", "file", "-i" };
    const size_t n_options = sizeof options / sizeof *options;
    const char *path = in->path ? in->path : "/dev/fd/0";
    size_t n = 1 + n_options + 1;
    g4_buf_add(text, m->ffmpeg, strlen(m->ffmpeg) + 1);
    for (size_t i = 0; i < n_options; i++) g4_buf_add(text, options[i], strlen(options[i]) + 1);
    g4_buf_str(text, "file:");
    g4_buf_add(text, path, strlen(path) + 1);
    for (size_t i = 0; args[i]; i++, n++) g4_buf_add(text, args[i], strlen(args[i]) + 1);
    char **list = text->failed ? NULL : g4_alloc(m->a, n + 1, sizeof *list);
    if (!list) return NULL;
    char *p = text->data;
    for (size_t i = 0; i < n; i++, p += strlen(p) + 1) list[i] = p;
    return list;
}

/* Start it with the pipes' ends as its outputs and `in` (or nothing) as its input. Returns 0 or an errno. */
static int g4_child_spawn(g4_child *p, char *const *arguments, int in)
{
    posix_spawn_file_actions_t actions;
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc) return rc;
    rc = in >= 0 ? posix_spawn_file_actions_adddup2(&actions, in, 0)
                 : posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (!rc) rc = posix_spawn_file_actions_adddup2(&actions, p->out[1], 1);
    if (!rc) rc = posix_spawn_file_actions_adddup2(&actions, p->messages[1], 2);
    if (!rc) rc = posix_spawnp(&p->pid, arguments[0], &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

static g4_status g4_child_start(const g4_media_limits *m, const g4_input *in, const char *const *args, g4_child *p,
                                g4_error *err)
{
    *p = (g4_child) { .pid = -1, .out = { -1, -1 }, .messages = { -1, -1 } };
    if (!m->ffmpeg[0]) return g4_fail(err, G4_ERR_UNSUPPORTED, G4_FFMPEG_NOT_OURS "no ffmpeg program may be started");
    g4_buf text = { m->a, NULL, 0, 0, 0 };
    char **arguments = g4_ffmpeg_arguments(m, in, args, &text);
    int rc = 0;
    if (arguments) {
        if (in->fd >= 0) lseek(in->fd, 0, SEEK_SET);
        rc = g4_open_pipe(p->out) || g4_open_pipe(p->messages) ? errno : g4_child_spawn(p, arguments, in->fd);
    }
    g4_status s = G4_OK;
    if (!arguments)
        s = g4_fail(err, G4_ERR_MEMORY, "ffmpeg: out of memory");
    else if (rc)
        s = g4_fail(err, G4_ERR_UNSUPPORTED,
                    G4_FFMPEG_NOT_OURS "the program \"%.60s\" for other formats could not be started: %s", m->ffmpeg,
                    strerror(rc));
    g4_free(m->a, arguments);
    g4_buf_free(&text);
    if (s) {
        g4_close_pipe(p->out);
        g4_close_pipe(p->messages);
        return s;
    }
    close(p->out[1]); /* the program's own ends */
    close(p->messages[1]);
    p->out[1] = p->messages[1] = -1;
    return G4_OK;
}

/* Keep the printable characters of its first line. */
static void g4_child_hear(g4_child *p, const uint8_t *data, size_t n)
{
    for (size_t i = 0; i < n && !p->line_ended; i++) {
        p->line_ended = p->n_said > 0 && (data[i] == '\n' || data[i] == '\r');
        if (data[i] >= 32 && data[i] < 127 && p->n_said + 1 < sizeof p->said) p->said[p->n_said++] = (char)data[i];
    }
    p->said[p->n_said] = 0;
}

/* Read what it writes until it ends or the sink has enough, which returns nonzero. */
static int g4_child_drain(g4_child *p, g4_sink_fn sink, void *ctx)
{
    struct pollfd fds[2] = { { p->out[0], POLLIN, 0 }, { p->messages[0], POLLIN, 0 } };
    while (fds[0].fd >= 0 || fds[1].fd >= 0) {
        if (poll(fds, 2, -1) < 0) {
            if (errno == EINTR) continue;
            break;
        }
        for (int i = 0; i < 2; i++) {
            uint8_t chunk[65536];
            if (fds[i].fd < 0 || !fds[i].revents) continue;
            const ssize_t got = read(fds[i].fd, chunk, sizeof chunk);
            if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
            if (got <= 0)
                fds[i].fd = -1; /* closed: poll skips it */
            else if (i == 1)
                g4_child_hear(p, chunk, (size_t)got);
            else if (sink(ctx, chunk, (size_t)got))
                return 1;
        }
    }
    return 0;
}

/* Run the program on the input; what it writes goes to sink. */
static g4_status g4_ffmpeg(const g4_media_limits *m, const g4_input *in, const char *const *args, g4_sink_fn sink,
                           void *ctx, g4_error *err)
{
    g4_child p;
    const g4_status s = g4_child_start(m, in, args, &p, err);
    if (s) return s;
    const int stopped = g4_child_drain(&p, sink, ctx);
    g4_close_pipe(p.out);
    g4_close_pipe(p.messages);
    if (stopped) kill(p.pid, SIGKILL);
    int status = 0;
    while (waitpid(p.pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (stopped || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) return G4_OK;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127 &&
        !p.n_said) /* as a shell says that there is no such program */
        return g4_fail(err, G4_ERR_UNSUPPORTED,
                       G4_FFMPEG_NOT_OURS "the program \"%.60s\" for other formats could not be started", m->ffmpeg);
    return g4_fail(err, G4_ERR_FORMAT, "%.40s cannot read it: %s", m->ffmpeg,
                   p.n_said ? p.said : "it ended without a message");
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

/* ---- A picture ------------------------------------------------------------------------------ */

/* A PAM file that is collected whole. */
typedef struct {
    g4_buf bytes;
    uint64_t limit;
    int too_long;
} g4_picture_stream;

static int g4_picture_sink(void *ctx, const uint8_t *data, size_t n)
{
    g4_picture_stream *p = ctx;
    p->too_long = n > p->limit - p->bytes.len;
    if (!p->too_long) g4_buf_add(&p->bytes, data, n);
    return p->too_long || p->bytes.failed;
}

g4_status g4_ffmpeg_image(const g4_media_limits *m, const g4_input *in, g4_image *out, g4_error *err)
{
    static const char *const args[] = { "-map",     "0:v:0", "-frames:v", "1",          "-c:v", "pam",
                                        "-pix_fmt", "rgba",  "-f",        "image2pipe", "-",    NULL };
    g4_picture_stream p = { .bytes.a = m->a };
    p.limit = m->max_pixels < SIZE_MAX / 8 ? m->max_pixels * 4 + 256 : SIZE_MAX / 2; /* 256: more than a header */
    g4_pixels pixels;
    g4_status s = g4_ffmpeg(m, in, args, g4_picture_sink, &p, err);
    if (!s && p.bytes.failed)
        s = g4_fail(err, G4_ERR_MEMORY, "a picture of more than %zu bytes: out of memory", p.bytes.len);
    else if (!s && p.too_long)
        s = g4_fail(err, G4_ERR_UNSUPPORTED, "the picture has more than the limit of %" PRIu64 " pixels",
                    m->max_pixels);
    else if (!s && p.bytes.len < 3)
        s = g4_fail(err, G4_ERR_FORMAT, "%.40s found no picture in it", m->ffmpeg);
    if (!s) s = g4_pnm_decode(m, (const uint8_t *)p.bytes.data, p.bytes.len, &pixels, err);
    if (!s) *out = (g4_image) { .pixels = pixels.rgb, .width = pixels.w, .height = pixels.h };
    g4_buf_free(&p.bytes);
    return s;
}

/* ---- Sound ---------------------------------------------------------------------------------- */

/* A WAV file that arrives in pieces: its channels are averaged on the way. */
typedef struct {
    const g4_media_limits *m;
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
    const uint64_t limit = g4_wav_limit(w->m, &w->f);
    if (w->n >= limit)
        return g4_fail(w->err, G4_ERR_UNSUPPORTED, "the sound has more than the limit of %" PRIu64 " samples at 16 kHz",
                       w->m->max_samples);
    uint64_t cap = w->cap ? 2 * (uint64_t)w->cap : 1 << 18;
    if (cap > limit) cap = limit;
    float *more = cap > SIZE_MAX / sizeof *more ? NULL : g4_realloc(w->m->a, w->x, (size_t)cap, sizeof *more);
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
    const g4_status s = g4_wav_chunks(w->head, w->n_head, &w->f, &pos, w->err);
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
    g4_wav_stream w = { .m = m, .err = err };
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
    char line[256];
    size_t n;                                    /* characters of the line */
    int64_t frames, timed;                       /* of stream 0; timed: those with a time */
    double duration, first, last, last_duration; /* in units of its time base; duration: the sum */
    double time_base;                            /* seconds */
    int has_sound;
} g4_probe;

static void g4_probe_frame(g4_probe *p, int64_t pts, int64_t duration)
{
    const double time = (double)pts, length = duration > 0 ? (double)duration : 0;
    p->duration += length;
    p->frames++;
    if (pts == INT64_MIN) return; /* it has no time */
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
    }
    return 0;
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

/* A row of PPM pictures, one a frame. */
typedef struct {
    const g4_media_limits *m;
    g4_frames *frames;
    char head[64]; /* of a picture */
    size_t n_head;
    g4_pixels picture; /* the one being filled; rgb is NULL between two */
    size_t have, need; /* bytes of its pixels */
    g4_error *err;
    g4_status status;
} g4_frame_stream;

/* One more character of "P6\nwidth height\n255\n"; the last one takes memory for the picture. */
static g4_status g4_frame_stream_head(g4_frame_stream *f, char c)
{
    int w = 0, h = 0, max = 0, used = 0;
    f->head[f->n_head++] = c;
    f->head[f->n_head] = 0;
    if (c == '\n' && sscanf(f->head, "P6 %9d %9d %3d%n", &w, &h, &max, &used) == 3 && used == (int)f->n_head - 1) {
        if (w <= 0 || h <= 0 || max != 255) return g4_fail(f->err, G4_ERR_FORMAT, "video: a frame of %d x %d", w, h);
        f->need = (size_t)w * (size_t)h * 3;
        f->have = f->n_head = 0;
        return g4_pixels_alloc(f->m, "video", (uint64_t)w, (uint64_t)h, &f->picture, f->err);
    }
    if (f->n_head + 1 == sizeof f->head)
        return g4_fail(f->err, G4_ERR_FORMAT, "video: frame %d does not start as expected", f->frames->n);
    return G4_OK;
}

static int g4_frame_stream_sink(void *ctx, const uint8_t *data, size_t n)
{
    g4_frame_stream *f = ctx;
    while (n > 0) {
        size_t used = 1;
        if (!f->picture.rgb) {
            f->status = g4_frame_stream_head(f, (char)*data);
            if (f->status) return 1;
        } else {
            used = f->need - f->have < n ? f->need - f->have : n;
            memcpy(f->picture.rgb + f->have, data, used);
            f->have += used;
            if (f->have == f->need) g4_frames_add(f->frames, &f->picture);
            if (f->frames->n == f->frames->n_wanted) return 1;
        }
        data += used;
        n -= used;
    }
    return 0;
}

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
    g4_frame_stream f = { .m = m, .frames = out, .err = err };
    s = g4_ffmpeg_each(m, in, args, g4_frame_stream_sink, &f, err);
    g4_pixels_free(m, &f.picture);
    return f.status ? f.status : s;
}

/* The sampled frames of a video, of which `packets` tells the rate and how many there should be. When fewer come out,
 * those that decode are counted and sampled again. */
static g4_status g4_ffmpeg_sample(const g4_media_limits *m, const g4_input *in, const g4_probe *packets, g4_frames *out,
                                  g4_error *err)
{
    const char *args[] = { NULL, "passthrough", "-map", "0:V:0", "-f", "framecrc", "-", NULL };
    const double fps = g4_probe_fps(packets);
    g4_status s = g4_ffmpeg_frames(m, in, packets->frames, fps, out, err);
    if (s || out->n == out->n_wanted) return s;
    g4_frames_free(m, out);
    g4_probe decoded = { .n = 0 };
    s = g4_ffmpeg_each(m, in, args, g4_probe_sink, &decoded, err);
    if (!s) s = g4_ffmpeg_frames(m, in, decoded.frames, fps, out, err);
    if (!s && out->n < out->n_wanted)
        s = g4_fail(err, G4_ERR_FORMAT, "video: %d frames decoded, expected %d", out->n, out->n_wanted);
    return s;
}

g4_status g4_ffmpeg_video(const g4_media_limits *m, const g4_input *in, g4_video *out, g4_error *err)
{
    static const char *const args[] = { "-map", "0:V:0", "-map", "0:a:0?", "-c", "copy", "-f", "framecrc", "-", NULL };
    g4_probe packets = { .n = 0 };
    g4_frames frames = { .n = 0 };
    g4_audio *sound = NULL;
    g4_status s = g4_ffmpeg(m, in, args, g4_probe_sink, &packets, err);
    if (!s) s = g4_ffmpeg_sample(m, in, &packets, &frames, err);
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
