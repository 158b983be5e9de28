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
#define G4_READ_PATIENCE 10     /* seconds in which somebody must open a named pipe to write into it */

/* What is there next, at most n bytes; 0 at the end. Whoever writes into a pipe may take his time, once he is there:
 * a pipe that nobody has opened reads like one that has ended, but poll sees no end of it. */
static g4_status g4_media_read_some(const g4_media_limits *m, int fd, uint8_t *out, size_t n, size_t *got,
                                    g4_error *err)
{
    const double start = g4_seconds();
    for (;;) {
        if (g4_halted(m->halt)) return g4_halt_check(m->halt, err);
        struct pollfd ready = { fd, POLLIN, 0 };
        const int is_ready = poll(&ready, 1, G4_READ_WAIT) != 0;
        const ssize_t count = read(fd, out, n < G4_READ_PIECE ? n : G4_READ_PIECE);
        *got = count > 0 ? (size_t)count : 0;
        if (count > 0 || (count == 0 && is_ready)) return G4_OK;
        if (count < 0 && errno != EINTR && errno != EAGAIN)
            return g4_fail(err, G4_ERR_IO, "cannot read: %s", strerror(errno));
        if (count == 0 && g4_seconds() - start > G4_READ_PATIENCE)
            return g4_fail(err, G4_ERR_IO, "nobody has opened this pipe to write into it for %d seconds",
                           G4_READ_PATIENCE);
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

/* Is there a reader, of ours or of ffmpeg's, for what begins so? */
static int g4_is_known(const uint8_t *d, size_t n) { return g4_id3_bytes(d, n) > 0 || g4_demuxer_of(d, n) != NULL; }

g4_status g4_media_open(const g4_media_limits *m, const char *path, g4_media_file *out, g4_error *err)
{
    struct stat st;
    /* without waiting for whoever writes into a named pipe */
    *out = (g4_media_file) { .fd = g4_fd_raise(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) };
    if (out->fd < 0) return g4_fail(err, G4_ERR_IO, "cannot open: %s", strerror(errno));
    out->is_regular = fstat(out->fd, &st) == 0 && S_ISREG(st.st_mode);
    out->size = out->is_regular ? (uint64_t)st.st_size : 0;
    g4_status s = g4_media_fill(m, out->fd, out->head, sizeof out->head, &out->n_head, err);
    if (!s && out->n_head == 0) s = g4_fail(err, G4_ERR_FORMAT, "the file is empty");
    if (!s && !g4_is_known(out->head, out->n_head)) s = g4_format_unknown(out->head, out->n_head, err);
    if (s) g4_media_close(out);
    return s;
}

void g4_media_close(g4_media_file *f)
{
    if (f->fd >= 0) close(f->fd);
    f->fd = -1;
}

/* The rest of a file behind its first *n bytes, which are in *data (cap): up to `most`, which is enough, and `max`. */
static g4_status g4_media_read_rest(const g4_media_limits *m, int fd, uint64_t most, uint64_t max, uint8_t **data,
                                    size_t cap, size_t *n, g4_error *err)
{
    for (;;) {
        const g4_status s = g4_media_fill(m, fd, *data, cap, n, err);
        if (s) return s;
        if (*n >= most) {
            *n = (size_t)most;
            return G4_OK;
        }
        if (*n > max) return g4_fail(err, G4_ERR_UNSUPPORTED, "more than the limit of %" PRIu64 " bytes", max);
        if (*n < cap) return G4_OK;
        /* it is full: there may be more */
        uint8_t *more = cap > SIZE_MAX / 2 ? NULL : g4_grow(m->a, *data, *n, 2 * cap, 1, m->halt);
        if (!more) return g4_fail(err, G4_ERR_MEMORY, "%zu bytes: out of memory", cap);
        *data = more;
        cap *= 2;
    }
}

/* Bytes that a file may have. */
static uint64_t g4_media_max(const g4_media_limits *m, const g4_media_file *f, int is_picture)
{
    const uint64_t max = is_picture ? m->max_picture_bytes : m->max_file_bytes;
    return f->is_regular || max < m->max_pipe_bytes ? max : m->max_pipe_bytes;
}

static g4_status g4_media_check_bytes(uint64_t bytes, uint64_t max, g4_error *err)
{
    if (bytes <= max) return G4_OK;
    return g4_fail(err, G4_ERR_UNSUPPORTED, "%" PRIu64 " bytes are more than the limit of %" PRIu64, bytes, max);
}

g4_status g4_media_check_size(const g4_media_limits *m, const g4_media_file *f, int is_picture, g4_error *err)
{
    return g4_media_check_bytes(f->size, g4_media_max(m, f, is_picture), err);
}

g4_status g4_media_read(const g4_media_limits *m, const g4_media_file *f, uint64_t most, uint8_t **out, size_t *size,
                        g4_error *err)
{
    const uint64_t max = g4_media_max(m, f, g4_is_read_whole(f->head, f->n_head));
    *out = NULL;
    *size = f->n_head;
    if (!f->is_regular) most = UINT64_MAX;
    /* a byte more shows where it ends */
    const uint64_t all = f->is_regular ? f->size < most ? f->size : most : 65535;
    g4_status s = g4_media_check_bytes(all, max, err);
    if (s) return s;
    const size_t cap = g4_max_size((size_t)all, f->n_head) + 1;
    uint8_t *data = g4_alloc(m->a, cap, 1);
    if (!data) return g4_fail(err, G4_ERR_MEMORY, "%zu bytes: out of memory", cap);
    memcpy(data, f->head, f->n_head);
    s = g4_media_read_rest(m, f->fd, most, max, &data, cap, size, err);
    if (s)
        g4_free(m->a, data);
    else
        *out = data;
    return s;
}

#define G4_WAV_FRONT (64 << 20) /* bytes before the samples of a WAV file at most: pictures and notes may stand there */

g4_status g4_wav_file_find(const g4_media_limits *m, const g4_media_file *file, g4_wav_format *f, size_t *at,
                           uint64_t *n, g4_error *err)
{
    uint8_t *front;
    size_t size;
    g4_status s = g4_wav_find(m, file->head, file->n_head, file->size, f, at, n, err);
    if (!s || !f->more || file->n_head == file->size) return s;
    s = g4_media_read(m, file, G4_WAV_FRONT, &front, &size, err);
    if (s) return s;
    s = g4_wav_find(m, front, size, file->size, f, at, n, err);
    g4_free(m->a, front);
    if (!s && lseek(file->fd, (off_t)file->n_head, SEEK_SET) < 0)
        s = g4_fail(err, G4_ERR_IO, "cannot go back to its start: %s", strerror(errno));
    return s;
}

/* ---- Any kind of medium --------------------------------------------------------------------- */

/* Where the result goes: one of these is set. */
typedef struct {
    g4_image *image;
    g4_audio *audio;
    g4_video *video;
} g4_media_target;

const g4_picture_reader *g4_picture_reader_of(const uint8_t *d, size_t n)
{
    static const g4_picture_reader readers[] = {
        { "png", g4_is_png, g4_png_size, g4_png_decode }, { "jpeg", g4_is_jpeg, g4_jpeg_size, g4_jpeg_decode },
        { "gif", g4_is_gif, g4_gif_size, g4_gif_decode }, { "webp", g4_is_webp, g4_webp_size, g4_webp_decode },
        { "bmp", g4_is_bmp, g4_bmp_size, g4_bmp_decode }, { "pnm", g4_is_pnm, g4_pnm_size, g4_pnm_decode },
        { "ico", g4_is_ico, g4_ico_size, g4_ico_decode }, { "xbm", g4_is_xbm, g4_xbm_size, g4_xbm_decode },
        { "tga", g4_is_tga, g4_tga_size, g4_tga_decode }, { "dds", g4_is_dds, g4_dds_size, g4_dds_decode },
        { "sgi", g4_is_sgi, g4_sgi_size, g4_sgi_decode }, { "qoi", g4_is_qoi, g4_qoi_size, g4_qoi_decode },
        { "pcx", g4_is_pcx, g4_pcx_size, g4_pcx_decode },
    };
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++)
        if (readers[i].is(d, n)) return &readers[i];
    return NULL;
}

int g4_is_read_whole(const uint8_t *d, size_t n)
{
    return g4_picture_reader_of(d, n) || g4_is_tiff(d, n) || g4_is_heif(d, n);
}

static g4_status g4_media_decode_picture(const g4_media_limits *m, const uint8_t *data, size_t size, g4_image *out,
                                         int *foreign, g4_error *err)
{
    g4_pixels p;
    const g4_picture_reader *const reader = g4_picture_reader_of(data, size);
    const g4_status s = reader                   ? reader->decode(m, data, size, &p, err)
                        : g4_is_heif(data, size) ? g4_heif_decode(m, data, size, &p, foreign, err)
                                                 : g4_tiff_decode(m, data, size, &p, foreign, err);
    if (!s) *out = (g4_image) { .pixels = p.rgb, .width = p.w, .height = p.h };
    return s;
}

/* By a reader of ours. *foreign is set when there is none. */
static g4_status g4_media_decode_ours(const g4_media_limits *m, const uint8_t *data, size_t size,
                                      const g4_media_target *out, int *foreign, g4_error *err)
{
    if (out->image && g4_is_read_whole(data, size))
        return g4_media_decode_picture(m, data, size, out->image, foreign, err);
    if (out->audio && g4_is_wav(data, size)) return g4_wav_decode(m, data, size, out->audio, foreign, err);
    if (out->video && g4_is_y4m(data, size)) {
        g4_source src = { data, NULL, size, 0, m->halt };
        return g4_y4m_decode(m, &src, out->video, foreign, err);
    }
    *foreign = 1;
    return G4_ERR_UNSUPPORTED;
}

/* By ffmpeg, from an open file. turn: of a picture, if it is known here. */
static g4_status g4_media_decode_foreign(const g4_media_limits *m, int fd, const g4_turn *turn,
                                         const g4_media_target *out, g4_error *err)
{
    g4_input in = { .fd = fd };
    const g4_status s = g4_format_find(fd, &in.format, err);
    if (s) return s;
    if (out->image) return g4_ffmpeg_image(m, &in, turn, out->image, err);
    if (out->audio) return g4_ffmpeg_audio(m, &in, out->audio, err);
    return g4_ffmpeg_video(m, &in, out->video, err);
}

int g4_foreign_orientation(const g4_media_limits *m, const uint8_t *data, size_t size, g4_turn *out)
{
    *out = (g4_turn) { 0, 0 };
    if (g4_is_tiff(data, size))
        g4_turn_by_exif(out, data, size); /* EXIF is a TIFF file */
    else if (g4_is_heif(data, size))
        g4_turn_by_heif(m, out, data, size);
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
    if (!g4_is_known(data, size)) return g4_format_unknown(data, size, err);
    int fd;
    s = g4_tiff_check(data, size, err);
    if (!s) s = g4_media_spill(m, data, size, &fd, err);
    if (s) return s;
    g4_turn turn;
    const int is_turned = g4_foreign_orientation(m, data, size, &turn);
    s = g4_media_decode_foreign(m, fd, is_turned ? &turn : NULL, out, err);
    close(fd);
    return s;
}

g4_status g4_y4m_file_open(const g4_media_limits *m, const g4_media_file *f, g4_source *out, g4_error *err)
{
    const int fd = g4_fd_copy(f->fd);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "rb");
    if (fd >= 0 && !file) close(fd);
    if (!file) return g4_fail(err, G4_ERR_IO, "cannot read: %s", strerror(errno));
    if (fseeko(file, 0, SEEK_SET) != 0) {
        fclose(file);
        return g4_fail(err, G4_ERR_IO, "cannot go to its start: %s", strerror(errno));
    }
    *out = (g4_source) { NULL, file, f->size, 0, m->halt };
    return G4_OK;
}

/* *foreign is set when it is of a kind that ffmpeg may read. */
static g4_status g4_media_load_y4m(const g4_media_limits *m, const g4_media_file *f, g4_video *out, int *foreign,
                                   g4_error *err)
{
    g4_source src;
    g4_status s = g4_y4m_file_open(m, f, &src, err);
    if (s) return s;
    s = g4_y4m_decode(m, &src, out, foreign, err);
    fclose(src.file);
    return s;
}

/* What is decoded from memory: the first `most` bytes. */
static g4_status g4_media_load_whole(const g4_media_limits *m, const g4_media_file *f, uint64_t most,
                                     const g4_media_target *out, g4_error *err)
{
    uint8_t *data;
    size_t size;
    g4_status s = g4_media_read(m, f, most, &data, &size, err);
    if (!s) s = g4_media_decode_bytes(m, data, size, out, err);
    g4_free(m->a, data);
    return s;
}

/* *foreign is set when it is of a kind that ffmpeg may read. What stands behind the samples is not read. */
static g4_status g4_media_load_wav(const g4_media_limits *m, const g4_media_file *f, const g4_media_target *out,
                                   int *foreign, g4_error *err)
{
    g4_wav_format format;
    size_t at = 0;
    uint64_t n = 0;
    const g4_status s = g4_wav_file_find(m, f, &format, &at, &n, err);
    *foreign = format.foreign;
    return s ? s : g4_media_load_whole(m, f, at + n * format.bytes * format.channels, out, err);
}

/* A regular file that is not of ours, or is a video, is not read into memory, unless its tags are looked at here. */
static g4_status g4_media_load_file(const g4_media_limits *m, const g4_media_file *f, const g4_media_target *out,
                                    g4_error *err)
{
    const int is_ours = (out->image && g4_is_read_whole(f->head, f->n_head)) || g4_is_tiff(f->head, f->n_head);
    int foreign = 1;
    g4_status s = out->image ? g4_media_check_size(m, f, 1, err) : G4_OK;
    if (s) return s;
    if (!f->is_regular || is_ours) return g4_media_load_whole(m, f, UINT64_MAX, out, err);
    if (out->audio && g4_is_wav(f->head, f->n_head)) {
        s = g4_media_load_wav(m, f, out, &foreign, err);
        if (!foreign) return s;
    }
    if (out->video && g4_is_y4m(f->head, f->n_head)) {
        foreign = 0;
        s = g4_media_load_y4m(m, f, out->video, &foreign, err);
        if (!foreign) return s;
    }
    return g4_media_decode_foreign(m, f->fd, NULL, out, err);
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
    g4_media_file file;
    g4_status s = g4_media_begin(&m, &halt, opt, err);
    if (s) return s;
    s = g4_media_open(&m, path, &file, err);
    if (!s) {
        s = g4_media_load_file(&m, &file, out, err);
        g4_media_close(&file);
    }
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
