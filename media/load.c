/* load.c - files and bytes to pictures, sound and video: a reader is chosen by the first bytes. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

/* ---- Loading --------------------------------------------------------------------------------------
 *
 * A load call reads the file and names it in front of the message of whatever failed inside. */

static g4_status g4_named(g4_error *err, const char *path, g4_status s)
{
    if (!s || !err) return s;
    g4_error inner = *err;
    size_t n = strlen(path), keep = 90; /* the end of a long path says more than its start */
    return g4_fail(err, s, "%s%s: %s", n > keep ? "..." : "", n > keep ? path + n - keep : path, inner.message);
}

/* The whole file, if it is one of ours: a regular file whose first bytes `ours` refuses is left unread (*out NULL), for
 * ffmpeg to open. */
static g4_status g4_file_read(const g4_media *m, const char *path, int (*ours)(const uint8_t *, size_t), uint8_t **out,
                              size_t *size, g4_error *err)
{
    *out = NULL;
    *size = 0;
    FILE *f = fopen(path, "rb");
    if (!f) return g4_fail(err, G4_ERR_IO, "cannot open: %s", strerror(errno));
    struct stat st;
    int known = fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode);
    uint8_t head[16];
    size_t n = fread(head, 1, sizeof head, f), cap = 65536;
    g4_status s = G4_OK;
    if (ferror(f))
        s = g4_fail(err, G4_ERR_IO, "cannot read: %s", strerror(errno));
    else if (n == 0)
        s = g4_fail(err, G4_ERR_FORMAT, "the file is empty");
    if (s || (known && !ours(head, n))) {
        fclose(f);
        return s;
    }
    if (known && (uint64_t)st.st_size > m->max_file_bytes)
        s = g4_fail(err, G4_ERR_UNSUPPORTED, "%lld bytes are more than the limit of %" PRIu64, (long long)st.st_size,
                    m->max_file_bytes);
    else if (known && st.st_size >= 16)
        cap = (size_t)st.st_size + 1;
    uint8_t *data = s ? NULL : g4_alloc(m->a, cap, 1);
    if (!s && !data) s = g4_fail(err, G4_ERR_MEMORY, "%zu bytes: out of memory", cap);
    if (data) memcpy(data, head, n);
    while (!s) {
        n += fread(data + n, 1, cap - n, f);
        if (n > m->max_file_bytes)
            s = g4_fail(err, G4_ERR_UNSUPPORTED, "more than the limit of %" PRIu64 " bytes", m->max_file_bytes);
        else if (ferror(f))
            s = g4_fail(err, G4_ERR_IO, "cannot read: %s", strerror(errno));
        if (s || n < cap) break; /* n == cap: there may be more */
        uint8_t *more = g4_realloc(m->a, data, cap, 2);
        if (!more)
            s = g4_fail(err, G4_ERR_MEMORY, "%zu bytes: out of memory", cap);
        else
            data = more;
        cap *= 2;
    }
    fclose(f);
    if (s) {
        g4_free(m->a, data);
        return s;
    }
    *out = data;
    *size = n;
    return G4_OK;
}

/* Put bytes into a nameless temporary file, which ffmpeg can seek in; NULL on failure. */
static FILE *g4_spill(const void *data, size_t size, g4_error *err)
{
    FILE *f = tmpfile();
    if (f && fwrite(data, 1, size, f) == size && fflush(f) == 0) return f;
    g4_fail(err, G4_ERR_IO, "cannot write %zu bytes to a temporary file: %s", size, strerror(errno));
    if (f) fclose(f);
    return NULL;
}

static int g4_is_png(const uint8_t *d, size_t n) { return n >= 8 && !memcmp(d, "\x89PNG\r\n\x1a\n", 8); }
static int g4_is_jpeg(const uint8_t *d, size_t n) { return n >= 3 && d[0] == 0xff && d[1] == 0xd8 && d[2] == 0xff; }
static int g4_is_pnm(const uint8_t *d, size_t n)
{
    return n >= 3 && d[0] == 'P' && d[1] >= '1' && d[1] <= '7' &&
           (d[2] == '#' || d[2] == ' ' || (d[2] >= 9 && d[2] <= 13));
}
static int g4_is_picture(const uint8_t *d, size_t n) { return g4_is_png(d, n) || g4_is_jpeg(d, n) || g4_is_pnm(d, n); }
static int g4_is_wav(const uint8_t *d, size_t n)
{
    return n >= 12 && !memcmp(d, "RIFF", 4) && !memcmp(d + 8, "WAVE", 4);
}
static int g4_is_y4m(const uint8_t *d, size_t n) { return n >= 10 && !memcmp(d, "YUV4MPEG2 ", 10); }

static g4_status g4_picture_bytes(const g4_media *m, const uint8_t *data, size_t size, g4_image *out, g4_error *err)
{
    uint8_t *pixels = NULL;
    int w = 0, h = 0;
    g4_status s = g4_is_png(data, size)    ? g4_png_decode(m, data, size, &pixels, &w, &h, err)
                  : g4_is_jpeg(data, size) ? g4_jpeg_decode(m, data, size, &pixels, &w, &h, err)
                                           : g4_pnm_decode(m, data, size, &pixels, &w, &h, err);
    if (!s) *out = (g4_image) { pixels, w, h, 0, 0 };
    return s;
}

/* Readers of one kind of medium: from memory, and by ffmpeg from a file or an open descriptor. */
static g4_status g4_image_bytes(const g4_media *m, const uint8_t *data, size_t size, g4_image *out, g4_error *err)
{
    if (g4_is_picture(data, size)) return g4_picture_bytes(m, data, size, out, err);
    FILE *f = g4_spill(data, size, err);
    if (!f) return G4_ERR_IO;
    g4_input in = { NULL, fileno(f) };
    g4_status s = g4_ffmpeg_image(m, &in, out, err);
    fclose(f);
    return s;
}

static g4_status g4_audio_bytes(const g4_media *m, const uint8_t *data, size_t size, g4_audio *out, g4_error *err)
{
    int foreign = 0;
    if (g4_is_wav(data, size)) {
        g4_status s = g4_wav_decode(m, data, size, out, &foreign, err);
        if (!foreign) return s;
    }
    FILE *f = g4_spill(data, size, err);
    if (!f) return G4_ERR_IO;
    g4_input in = { NULL, fileno(f) };
    g4_status s = g4_ffmpeg_audio(m, &in, out, err);
    fclose(f);
    return s;
}

static g4_status g4_video_bytes(const g4_media *m, const uint8_t *data, size_t size, g4_video *out, g4_error *err)
{
    int foreign = 0;
    g4_status s;
    if (g4_is_y4m(data, size)) {
        g4_source src = { data, NULL, size, 0 };
        s = g4_y4m_frames(m, &src, out, &foreign, err);
        if (!foreign) return s;
    }
    FILE *f = g4_spill(data, size, err);
    if (!f) return G4_ERR_IO;
    g4_input in = { NULL, fileno(f) };
    s = g4_ffmpeg_video(m, &in, out, err);
    fclose(f);
    return s;
}

G4_API g4_status g4_image_decode(g4_image *out, const void *data, size_t size, const g4_media_options *opt,
                                 g4_error *err)
{
    memset(out, 0, sizeof *out);
    if (!data || size == 0) return g4_fail(err, G4_ERR_ARGUMENT, "a picture of 0 bytes");
    g4_media m = g4_media_resolve(opt);
    return g4_image_bytes(&m, data, size, out, err);
}

G4_API g4_status g4_audio_decode(g4_audio *out, const void *data, size_t size, const g4_media_options *opt,
                                 g4_error *err)
{
    memset(out, 0, sizeof *out);
    if (!data || size == 0) return g4_fail(err, G4_ERR_ARGUMENT, "sound of 0 bytes");
    g4_media m = g4_media_resolve(opt);
    return g4_audio_bytes(&m, data, size, out, err);
}

G4_API g4_status g4_video_decode(g4_video *out, const void *data, size_t size, const g4_media_options *opt,
                                 g4_error *err)
{
    memset(out, 0, sizeof *out);
    if (!data || size == 0) return g4_fail(err, G4_ERR_ARGUMENT, "a video of 0 bytes");
    g4_media m = g4_media_resolve(opt);
    g4_status s = g4_video_bytes(&m, data, size, out, err);
    if (s) g4_video_clear(&m, out);
    return s;
}

G4_API g4_status g4_image_load(g4_image *out, const char *path, const g4_media_options *opt, g4_error *err)
{
    memset(out, 0, sizeof *out);
    if (!path) return g4_fail(err, G4_ERR_ARGUMENT, "path is NULL");
    g4_media m = g4_media_resolve(opt);
    g4_input in = { path, -1 };
    uint8_t *data;
    size_t size;
    g4_status s = g4_file_read(&m, path, g4_is_picture, &data, &size, err);
    if (!s) s = data ? g4_image_bytes(&m, data, size, out, err) : g4_ffmpeg_image(&m, &in, out, err);
    g4_free(m.a, data);
    return g4_named(err, path, s);
}

G4_API g4_status g4_audio_load(g4_audio *out, const char *path, const g4_media_options *opt, g4_error *err)
{
    memset(out, 0, sizeof *out);
    if (!path) return g4_fail(err, G4_ERR_ARGUMENT, "path is NULL");
    g4_media m = g4_media_resolve(opt);
    g4_input in = { path, -1 };
    uint8_t *data;
    size_t size;
    g4_status s = g4_file_read(&m, path, g4_is_wav, &data, &size, err);
    if (!s) s = data ? g4_audio_bytes(&m, data, size, out, err) : g4_ffmpeg_audio(&m, &in, out, err);
    g4_free(m.a, data);
    return g4_named(err, path, s);
}

static int g4_is_never(const uint8_t *d, size_t n)
{
    (void)d;
    (void)n;
    return 0;
}

G4_API g4_status g4_video_load(g4_video *out, const char *path, const g4_media_options *opt, g4_error *err)
{
    memset(out, 0, sizeof *out);
    if (!path) return g4_fail(err, G4_ERR_ARGUMENT, "path is NULL");
    g4_media m = g4_media_resolve(opt);
    g4_input in = { path, -1 };
    uint8_t *data, head[10];
    size_t size;
    int foreign = 0, is_y4m = 0;
    g4_status s =
        g4_file_read(&m, path, g4_is_never, &data, &size, err); /* into memory only what cannot be opened twice */
    FILE *f = s || data ? NULL : fopen(path, "rb");
    struct stat st;
    if (f && fstat(fileno(f), &st) == 0 && fread(head, 1, sizeof head, f) == sizeof head &&
        g4_is_y4m(head, sizeof head)) {
        rewind(f);
        g4_source src = { NULL, f, (uint64_t)st.st_size, 0 };
        s = g4_y4m_frames(&m, &src, out, &foreign, err);
        is_y4m = !foreign;
    }
    if (f) fclose(f);
    if (foreign) s = G4_OK;
    if (!s && !is_y4m) s = data ? g4_video_bytes(&m, data, size, out, err) : g4_ffmpeg_video(&m, &in, out, err);
    g4_free(m.a, data);
    if (s) g4_video_clear(&m, out);
    return g4_named(err, path, s);
}

/* The caller reads what these point to, the library owns it. */
G4_API void g4_image_free(g4_image *image, const g4_media_options *opt)
{
    if (!image) return;
    g4_free(opt ? opt->allocator : NULL, (void *)(uintptr_t)image->pixels);
    memset(image, 0, sizeof *image);
}

G4_API void g4_audio_free(g4_audio *audio, const g4_media_options *opt)
{
    if (!audio) return;
    g4_free(opt ? opt->allocator : NULL, (void *)(uintptr_t)audio->samples);
    memset(audio, 0, sizeof *audio);
}

G4_API void g4_video_free(g4_video *video, const g4_media_options *opt)
{
    if (!video) return;
    g4_media m = g4_media_resolve(opt);
    g4_video_clear(&m, video);
}
