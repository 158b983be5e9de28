/* load.c - files and bytes to pictures, sound and video, and how these are freed. A reader is chosen by the first
 * bytes; what none of ours reads goes to ffmpeg. A load call names its file in front of the message of what failed. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- First bytes ---------------------------------------------------------------------------- */

int g4_is_png(const uint8_t *d, size_t n) { return n >= 8 && !memcmp(d, "\x89PNG\r\n\x1a\n", 8); }
int g4_is_jpeg(const uint8_t *d, size_t n) { return n >= 3 && d[0] == 0xff && d[1] == 0xd8 && d[2] == 0xff; }
int g4_is_pnm(const uint8_t *d, size_t n)
{
    return n >= 3 && d[0] == 'P' && d[1] >= '1' && d[1] <= '7' &&
           (d[2] == '#' || d[2] == ' ' || (d[2] >= '\t' && d[2] <= '\r'));
}
int g4_is_bmp(const uint8_t *d, size_t n) { return n >= 16 && d[0] == 'B' && d[1] == 'M' && d[15] == 0; }
int g4_is_webp(const uint8_t *d, size_t n) { return n >= 12 && !memcmp(d, "RIFF", 4) && !memcmp(d + 8, "WEBP", 4); }
int g4_is_tiff(const uint8_t *d, size_t n) { return n >= 8 && (!memcmp(d, "II*\0", 4) || !memcmp(d, "MM\0*", 4)); }
int g4_is_heif(const uint8_t *d, size_t n)
{
    static const char brands[][5] = { "avif", "avis", "heic", "heix", "mif1", "msf1" };
    for (size_t i = 0; n >= 12 && !memcmp(d + 4, "ftyp", 4) && i < sizeof brands / sizeof *brands; i++)
        if (!memcmp(d + 8, brands[i], 4)) return 1;
    return 0;
}
int g4_is_turned(const uint8_t *d, size_t n) { return g4_is_tiff(d, n) || g4_is_heif(d, n); }
int g4_is_picture(const uint8_t *d, size_t n)
{
    return g4_is_png(d, n) || g4_is_jpeg(d, n) || g4_is_pnm(d, n) || g4_is_bmp(d, n) || g4_is_webp(d, n);
}
int g4_is_read_whole(const uint8_t *d, size_t n) { return g4_is_picture(d, n) || g4_is_turned(d, n); }
int g4_is_wav(const uint8_t *d, size_t n) { return n >= 12 && !memcmp(d, "RIFF", 4) && !memcmp(d + 8, "WAVE", 4); }
int g4_is_y4m(const uint8_t *d, size_t n) { return n >= 10 && !memcmp(d, "YUV4MPEG2 ", 10); }

/* ---- Reading files -------------------------------------------------------------------------- */

/* Put the end of a path, which says more than its start, in front of the message of a failure. */
g4_status g4_media_name_failure(g4_error *err, const char *path, g4_status s)
{
    if (!s || !err) return s;
    const g4_error inner = *err;
    const size_t n = strlen(path), keep = 90;
    return g4_fail(err, s, "%s%s: %s", n > keep ? "..." : "", n > keep ? path + n - keep : path, inner.message);
}

#define G4_READ_PIECE (1 << 20) /* bytes: a read of a disk ends before long */
#define G4_READ_WAIT 10         /* milliseconds after which the halt is asked again */

/* Open it close-on-exec, and without waiting for whoever writes into a named pipe. -1: failed, for errno's reason. */
static int g4_media_open(const char *path) { return g4_fd_raise(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)); }

/* What is there next, at most n bytes; 0 at the end. Whoever writes into a pipe may take his time. */
static g4_status g4_media_read_some(const g4_media_limits *m, int fd, uint8_t *out, size_t n, size_t *got,
                                    g4_error *err)
{
    for (;;) {
        if (g4_halted(m->halt)) return g4_halt_check(m->halt, err);
        struct pollfd ready = { fd, POLLIN, 0 };
        if (poll(&ready, 1, G4_READ_WAIT) == 0) continue;
        const ssize_t count = read(fd, out, n < G4_READ_PIECE ? n : G4_READ_PIECE);
        *got = count > 0 ? (size_t)count : 0;
        if (count >= 0) return G4_OK;
        if (errno != EINTR && errno != EAGAIN) return g4_fail(err, G4_ERR_IO, "cannot read: %s", strerror(errno));
    }
}

/* Fill data (cap) as far as the file goes; *n bytes are there, and become more. */
static g4_status g4_media_fill(const g4_media_limits *m, int fd, uint8_t *data, size_t cap, size_t *n, g4_error *err)
{
    g4_status s = G4_OK;
    for (size_t got = 1; got > 0 && *n < cap && !s;) {
        s = g4_media_read_some(m, fd, data + *n, cap - *n, &got, err);
        if (!s) *n += got;
    }
    return s;
}

/* The rest of an open file behind its first *n bytes, which are in *data (cap). */
static g4_status g4_media_read_rest(const g4_media_limits *m, int fd, uint64_t max, uint8_t **data, size_t cap,
                                    size_t *n, g4_error *err)
{
    for (;;) {
        const g4_status s = g4_media_fill(m, fd, *data, cap, n, err);
        if (s) return s;
        if (*n > max) return g4_fail(err, G4_ERR_UNSUPPORTED, "more than the limit of %" PRIu64 " bytes", max);
        if (*n < cap) return G4_OK;
        /* it is full: there may be more */
        uint8_t *more = cap > SIZE_MAX / 2 ? NULL : g4_media_grow(m, *data, *n, 2 * cap);
        if (!more) return g4_fail(err, G4_ERR_MEMORY, "%zu bytes: out of memory", cap);
        *data = more;
        cap *= 2;
    }
}

/* The whole of an open file. A regular one that `ours` refuses, or any if it is NULL, is left unread (*out NULL): what
 * reads it can open it again. */
static g4_status g4_media_read_open(const g4_media_limits *m, int fd, g4_signature_fn ours, uint8_t **out, size_t *size,
                                    g4_error *err)
{
    struct stat st;
    const int regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    uint8_t head[G4_FIRST_BYTES];
    size_t cap = 65536;
    *size = 0;
    g4_status s = g4_media_fill(m, fd, head, sizeof head, size, err);
    if (s) return s;
    if (*size == 0) return g4_fail(err, G4_ERR_FORMAT, "the file is empty");
    if (regular && !(ours && ours(head, *size))) return G4_OK;
    if (regular && (uint64_t)st.st_size > m->max_file_bytes)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "%lld bytes are more than the limit of %" PRIu64, (long long)st.st_size,
                       m->max_file_bytes);
    if (regular && (size_t)st.st_size >= sizeof head) cap = (size_t)st.st_size + 1; /* one more shows where it ends */
    uint8_t *data = g4_alloc(m->a, cap, 1);
    if (!data) return g4_fail(err, G4_ERR_MEMORY, "%zu bytes: out of memory", cap);
    memcpy(data, head, *size);
    s = g4_media_read_rest(m, fd, regular ? m->max_file_bytes : m->max_pipe_bytes, &data, cap, size, err);
    if (s)
        g4_free(m->a, data);
    else
        *out = data;
    return s;
}

g4_status g4_media_read(const g4_media_limits *m, const char *path, g4_signature_fn ours, uint8_t **out, size_t *size,
                        g4_error *err)
{
    *out = NULL;
    const int fd = g4_media_open(path);
    if (fd < 0) return g4_fail(err, G4_ERR_IO, "cannot open: %s", strerror(errno));
    const g4_status s = g4_media_read_open(m, fd, ours, out, size, err);
    close(fd);
    return s;
}

g4_status g4_media_read_head(const g4_media_limits *m, const char *path, uint8_t *head, size_t cap, size_t *n,
                             uint64_t *file_bytes, g4_error *err)
{
    struct stat st;
    *n = 0;
    *file_bytes = 0;
    const int fd = g4_media_open(path);
    if (fd < 0) return g4_fail(err, G4_ERR_IO, "cannot open: %s", strerror(errno));
    g4_status s = G4_OK;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        *file_bytes = (uint64_t)st.st_size;
        s = g4_media_fill(m, fd, head, cap, n, err);
    }
    close(fd);
    return s;
}

/* ---- Any kind of medium --------------------------------------------------------------------- */

/* Where the result goes: one of these is set. */
typedef struct {
    g4_image *image;
    g4_audio *audio;
    g4_video *video;
} g4_media_target;

static g4_status g4_media_decode_picture(const g4_media_limits *m, const uint8_t *data, size_t size, g4_image *out,
                                         g4_error *err)
{
    g4_pixels p;
    const g4_status s = g4_is_png(data, size)    ? g4_png_decode(m, data, size, &p, err)
                        : g4_is_jpeg(data, size) ? g4_jpeg_decode(m, data, size, &p, err)
                        : g4_is_webp(data, size) ? g4_webp_decode(m, data, size, &p, err)
                        : g4_is_bmp(data, size)  ? g4_bmp_decode(m, data, size, &p, err)
                                                 : g4_pnm_decode(m, data, size, &p, err);
    if (!s) *out = (g4_image) { .pixels = p.rgb, .width = p.w, .height = p.h };
    return s;
}

/* By a reader of ours. *foreign is set when there is none. */
static g4_status g4_media_decode_ours(const g4_media_limits *m, const uint8_t *data, size_t size,
                                      const g4_media_target *out, int *foreign, g4_error *err)
{
    if (out->image && g4_is_picture(data, size)) return g4_media_decode_picture(m, data, size, out->image, err);
    if (out->audio && g4_is_wav(data, size)) return g4_wav_decode(m, data, size, out->audio, foreign, err);
    if (out->video && g4_is_y4m(data, size)) {
        g4_source src = { data, NULL, size, 0, m->halt };
        return g4_y4m_decode(m, &src, out->video, foreign, err);
    }
    *foreign = 1;
    return G4_ERR_UNSUPPORTED;
}

/* turn: of a picture, if it is known here. */
static g4_status g4_media_decode_foreign(const g4_media_limits *m, const g4_input *in, const g4_turn *turn,
                                         const g4_media_target *out, g4_error *err)
{
    if (out->image) return g4_ffmpeg_image(m, in, turn, out->image, err);
    if (out->audio) return g4_ffmpeg_audio(m, in, out->audio, err);
    return g4_ffmpeg_video(m, in, out->video, err);
}

int g4_foreign_orientation(const uint8_t *data, size_t size, g4_turn *out)
{
    *out = (g4_turn) { 0, 0 };
    if (g4_is_tiff(data, size))
        g4_turn_by_exif(out, data, size); /* EXIF is a TIFF file */
    else if (g4_is_heif(data, size))
        g4_turn_by_heif(out, data, size);
    else
        return 0;
    return 1;
}

static g4_status g4_media_decode_bytes(const g4_media_limits *m, const uint8_t *data, size_t size,
                                       const g4_media_target *out, g4_error *err)
{
    int foreign = 0;
    g4_status s = g4_media_decode_ours(m, data, size, out, &foreign, err);
    if (!foreign) return s;
    int fd;
    s = g4_media_spill(m, data, size, &fd, err);
    if (s) return s;
    g4_turn turn;
    const int is_turned = g4_foreign_orientation(data, size, &turn);
    s = g4_media_decode_foreign(m, &(g4_input) { NULL, fd }, is_turned ? &turn : NULL, out, err);
    close(fd);
    return s;
}

int g4_y4m_file_open(const g4_media_limits *m, const char *path, g4_source *out)
{
    uint8_t head[G4_FIRST_BYTES];
    struct stat st;
    const int fd = g4_media_open(path);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "rb");
    if (fd >= 0 && !f) close(fd);
    if (!f) return 0;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && g4_is_y4m(head, fread(head, 1, sizeof head, f)) &&
        fseeko(f, 0, SEEK_SET) == 0) {
        *out = (g4_source) { NULL, f, (uint64_t)st.st_size, 0, m->halt };
        return 1;
    }
    fclose(f);
    return 0;
}

/* *foreign is set when it is another kind of file. */
static g4_status g4_media_load_y4m(const g4_media_limits *m, const char *path, g4_video *out, int *foreign,
                                   g4_error *err)
{
    g4_source src;
    *foreign = !g4_y4m_file_open(m, path, &src);
    if (*foreign) return G4_OK;
    const g4_status s = g4_y4m_decode(m, &src, out, foreign, err);
    fclose(src.file);
    return s;
}

/* A regular file that is not of ours, or is a video, is not read into memory. */
static g4_status g4_media_load_file(const g4_media_limits *m, const char *path, const g4_media_target *out,
                                    g4_error *err)
{
    const g4_signature_fn ours = out->image ? g4_is_read_whole : out->audio ? g4_is_wav : NULL;
    uint8_t *data;
    size_t size;
    g4_status s = g4_media_read(m, path, ours, &data, &size, err);
    if (s) return s;
    if (data) {
        s = g4_media_decode_bytes(m, data, size, out, err);
        g4_free(m->a, data);
        return s;
    }
    int foreign = !out->video;
    if (out->video) s = g4_media_load_y4m(m, path, out->video, &foreign, err);
    return foreign ? g4_media_decode_foreign(m, &(g4_input) { path, -1 }, NULL, out, err) : s;
}

g4_status g4_media_end(const g4_media_limits *m, g4_status s, g4_error *err)
{
    return s && g4_halted(m->halt) ? g4_halt_check(m->halt, err) : s;
}

static g4_status g4_media_load(const g4_media_target *out, const char *path, const g4_media_options *opt, g4_error *err)
{
    g4_media_limits m;
    g4_halt halt;
    if (!path) return g4_fail(err, G4_ERR_ARGUMENT, "path is NULL");
    g4_status s = g4_media_begin(&m, &halt, opt, err);
    if (s) return s;
    s = g4_media_load_file(&m, path, out, err);
    return g4_media_name_failure(err, path, g4_media_end(&m, s, err));
}

static g4_status g4_media_decode(const g4_media_target *out, const char *kind, const void *data, size_t size,
                                 const g4_media_options *opt, g4_error *err)
{
    g4_media_limits m;
    g4_halt halt;
    if (!data) return g4_fail(err, G4_ERR_ARGUMENT, "%s: data is NULL", kind);
    if (size == 0) return g4_fail(err, G4_ERR_ARGUMENT, "%s of 0 bytes", kind);
    const g4_status s = g4_media_begin(&m, &halt, opt, err);
    return s ? s : g4_media_end(&m, g4_media_decode_bytes(&m, data, size, out, err), err);
}

/* ---- Pictures, sound, video ----------------------------------------------------------------- */

g4_status g4_image_load(g4_image *out, const char *path, const g4_media_options *opt, g4_error *err)
{
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    memset(out, 0, sizeof *out);
    return g4_media_load(&(g4_media_target) { .image = out }, path, opt, err);
}

g4_status g4_image_decode(g4_image *out, const void *data, size_t size, const g4_media_options *opt, g4_error *err)
{
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    memset(out, 0, sizeof *out);
    return g4_media_decode(&(g4_media_target) { .image = out }, "a picture", data, size, opt, err);
}

void g4_image_free(g4_image *image, const g4_media_options *opt)
{
    if (!image) return;
    g4_free_given(opt ? opt->allocator : NULL, image->pixels);
    memset(image, 0, sizeof *image);
}

g4_status g4_audio_load(g4_audio *out, const char *path, const g4_media_options *opt, g4_error *err)
{
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    memset(out, 0, sizeof *out);
    return g4_media_load(&(g4_media_target) { .audio = out }, path, opt, err);
}

g4_status g4_audio_decode(g4_audio *out, const void *data, size_t size, const g4_media_options *opt, g4_error *err)
{
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    memset(out, 0, sizeof *out);
    return g4_media_decode(&(g4_media_target) { .audio = out }, "sound", data, size, opt, err);
}

void g4_audio_free(g4_audio *audio, const g4_media_options *opt)
{
    if (!audio) return;
    g4_free_given(opt ? opt->allocator : NULL, audio->samples);
    memset(audio, 0, sizeof *audio);
}

g4_status g4_video_load(g4_video *out, const char *path, const g4_media_options *opt, g4_error *err)
{
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    memset(out, 0, sizeof *out);
    return g4_media_load(&(g4_media_target) { .video = out }, path, opt, err);
}

g4_status g4_video_decode(g4_video *out, const void *data, size_t size, const g4_media_options *opt, g4_error *err)
{
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    memset(out, 0, sizeof *out);
    return g4_media_decode(&(g4_media_target) { .video = out }, "a video", data, size, opt, err);
}

void g4_video_free(g4_video *video, const g4_media_options *opt)
{
    if (!video) return;
    const g4_allocator *a = opt ? opt->allocator : NULL;
    for (int i = 0; video->frames && i < video->n_frames; i++) g4_free_given(a, video->frames[i].pixels);
    g4_free_given(a, video->frames);
    g4_free_given(a, video->seconds);
    if (video->sound) g4_free_given(a, video->sound->samples);
    g4_free_given(a, video->sound);
    memset(video, 0, sizeof *video);
}
