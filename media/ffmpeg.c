/* ffmpeg.c - the ffmpeg program, for everything else. */
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

/* ---- The ffmpeg program -----------------------------------------------------------------------------------
 *
 * Whatever is not read above: started without a shell, its standard output read through a pipe while its messages are
 * drained from another, ended and reaped in every case. It may open files only, no network. */

typedef int (*g4_sink_fn)(void *ctx, const uint8_t *data, size_t n); /* nonzero: stop, no more is wanted */

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

g4_status g4_ffmpeg_image(const g4_media *m, const g4_input *in, g4_image *out, g4_error *err)
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
    if (!s) *out = (g4_image) { pixels, w, h, 0, 0 };
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
            w->status =
                g4_fail(w->err, G4_ERR_UNSUPPORTED,
                        "the sound has more than the limit of %" PRIu64 " samples at 16 kHz", w->m->max_samples);
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
g4_status g4_ffmpeg_audio(const g4_media *m, const g4_input *in, g4_audio *out, g4_error *err)
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
                ((g4_image *)(uintptr_t)f->out->frames)[f->out->n_frames] = (g4_image) { NULL, w, h, 0, 0 };
            } else if (f->n_head + 1 == sizeof f->head) {
                f->status =
                    g4_fail(f->err, G4_ERR_FORMAT, "video: frame %d does not start as expected", f->out->n_frames);
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

g4_status g4_ffmpeg_video(const g4_media *m, const g4_input *in, g4_video *out, g4_error *err)
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
