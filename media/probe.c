/* probe.c - what a file is and how large, before it is decoded: by our own readers' headers for the formats that they
 * read, by ffprobe for all others. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <unistd.h>

#define G4_PROBE_PIPE ((uint64_t)256 << 20) /* bytes of a file that can be read only once, at most */

static void g4_probe_name(g4_media_info *out, g4_media_kind kind, const char *format)
{
    out->kind = kind;
    snprintf(out->format, sizeof out->format, "%s", format);
}

/* Of `file`, or, where that is NULL, of what is in memory. */
static g4_status g4_probe_wav(const g4_media_limits *m, const g4_media_file *file, const uint8_t *data, size_t size,
                              g4_media_info *out, int *foreign, g4_error *err)
{
    g4_wav_format f;
    size_t at;
    uint64_t n; /* samples of each channel */
    const g4_status s =
        file ? g4_wav_file_find(m, file, &f, &at, &n, err) : g4_wav_find(m, data, size, size, &f, &at, &n, err);
    *foreign = f.foreign;
    if (s) return s;
    g4_probe_name(out, G4_MEDIA_AUDIO, "wav");
    out->sample_rate = (int)f.rate;
    out->channels = (int)f.channels;
    out->seconds = (double)n / f.rate;
    return G4_OK;
}

static g4_status g4_probe_y4m(const g4_media_limits *m, g4_source *src, g4_media_info *out, int *foreign, g4_error *err)
{
    g4_probe_name(out, G4_MEDIA_VIDEO, "y4m");
    return g4_y4m_size(m, src, out, foreign, err);
}

/* A still picture of HEIF's family. Its animations are videos. */
static g4_status g4_probe_heif(const g4_media_limits *m, const uint8_t *data, size_t size, g4_media_info *out,
                               int *foreign, g4_error *err)
{
    if (!memcmp(data + 8, "avis", 4) || !memcmp(data + 8, "msf1", 4)) {
        *foreign = 1;
        return G4_OK;
    }
    g4_probe_name(out, G4_MEDIA_IMAGE, memcmp(data + 8, "hei", 3) ? "avif" : "heic");
    return g4_heif_size(m, data, size, &out->width, &out->height, foreign, err);
}

/* By a reader of ours, from all bytes of the file. *foreign is set when there is none. */
static g4_status g4_probe_ours(const g4_media_limits *m, const uint8_t *data, size_t size, g4_media_info *out,
                               int *foreign, g4_error *err)
{
    g4_source src = { data, NULL, size, 0, m->halt };
    const g4_picture_reader *const reader = g4_picture_reader_of(data, size);
    if (reader && g4_is_gif(data, size) && g4_gif_is_animated(m, data, size)) { /* a video */
        *foreign = 1;
        return G4_OK;
    }
    if (reader) {
        g4_probe_name(out, G4_MEDIA_IMAGE, reader->name);
        return reader->size(m, data, size, &out->width, &out->height, err);
    }
    if (g4_is_heif(data, size)) return g4_probe_heif(m, data, size, out, foreign, err);
    if (g4_is_tiff(data, size)) {
        g4_probe_name(out, G4_MEDIA_IMAGE, "tiff");
        return g4_tiff_size(m, data, size, &out->width, &out->height, foreign, err);
    }
    if (g4_is_wav(data, size)) return g4_probe_wav(m, NULL, data, size, out, foreign, err);
    if (g4_is_y4m(data, size)) return g4_probe_y4m(m, &src, out, foreign, err);
    *foreign = 1;
    return G4_OK;
}

/* By ffprobe, from an open file. */
static g4_status g4_probe_foreign(const g4_media_limits *m, int fd, g4_media_info *out, g4_error *err)
{
    g4_input in = { .fd = fd };
    memset(out, 0, sizeof *out);
    const g4_status s = g4_format_find(fd, &in.format, err);
    return s ? s : g4_ffmpeg_probe(m, &in, out, err);
}

static g4_status g4_probe_bytes(const g4_media_limits *m, const uint8_t *data, size_t size, g4_media_info *out,
                                g4_error *err)
{
    int foreign = 0;
    g4_status s = g4_probe_ours(m, data, size, out, &foreign, err);
    if (!foreign) return s;
    int fd;
    s = g4_tiff_check(data, size, err);
    if (!s) s = g4_media_spill(m, data, size, &fd, err);
    if (s) return s;
    s = g4_probe_foreign(m, fd, out, err);
    close(fd);
    g4_turn turn;
    if (!s && g4_foreign_orientation(m, data, size, &turn))
        g4_upright_size(out->width, out->height, g4_orientation(&turn), &out->width, &out->height);
    return s;
}

/* A whole file in memory. */
static g4_status g4_probe_whole(const g4_media_limits *m, const g4_media_file *f, g4_media_info *out, g4_error *err)
{
    uint8_t *data;
    size_t size;
    g4_status s = g4_media_read(m, f, UINT64_MAX, &data, &size, err);
    if (!s) s = g4_probe_bytes(m, data, size, out, err);
    g4_free(m->a, data);
    return s;
}

/* A regular file of sound or video is not read into memory, if its head says enough. */
static g4_status g4_probe_file(const g4_media_limits *m, const g4_media_file *f, g4_media_info *out, g4_error *err)
{
    if (!f->is_regular || g4_is_read_whole(f->head, f->n_head)) return g4_probe_whole(m, f, out, err);
    int foreign = 1;
    g4_status s = G4_OK;
    g4_source src;
    if (g4_is_wav(f->head, f->n_head)) {
        s = g4_probe_wav(m, f, NULL, 0, out, &foreign, err);
    } else if (g4_is_y4m(f->head, f->n_head)) {
        foreign = 0;
        s = g4_y4m_file_open(m, f, &src, err);
        if (s) return s;
        s = g4_probe_y4m(m, &src, out, &foreign, err);
        fclose(src.file);
    }
    return foreign ? g4_probe_foreign(m, f->fd, out, err) : s;
}

/* Begin, with everything at 0; and end, which leaves it so after a failure. */
static g4_status g4_probe_begin(g4_media_info *out, g4_media_limits *m, g4_halt *halt, const g4_media_options *opt,
                                g4_error *err)
{
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    memset(out, 0, sizeof *out);
    return g4_media_begin(m, halt, opt, err);
}

static g4_status g4_probe_end(g4_media_info *out, const g4_media_limits *m, g4_status s, g4_error *err)
{
    if (s) memset(out, 0, sizeof *out);
    return g4_media_end(m, s, err);
}

g4_status g4_media_probe(g4_media_info *out, const char *path, const g4_media_options *opt, g4_error *err)
{
    g4_media_limits m = { 0 };
    g4_media_file file;
    g4_halt halt;
    g4_status s = g4_probe_begin(out, &m, &halt, opt, err);
    if (s) return s;
    if (!path) return g4_fail(err, G4_ERR_ARGUMENT, "path is NULL");
    if (m.max_pipe_bytes > G4_PROBE_PIPE) m.max_pipe_bytes = G4_PROBE_PIPE;
    s = g4_media_open(&m, path, &file, err);
    if (!s) {
        s = g4_probe_file(&m, &file, out, err);
        g4_media_close(&file);
    }
    return g4_media_name_failure(err, path, g4_probe_end(out, &m, s, err));
}

g4_status g4_media_probe_data(g4_media_info *out, const void *data, size_t size, const g4_media_options *opt,
                              g4_error *err)
{
    g4_media_limits m = { 0 };
    g4_halt halt;
    g4_status s = g4_probe_begin(out, &m, &halt, opt, err);
    if (s) return s;
    if (!data || size == 0) return g4_fail(err, G4_ERR_ARGUMENT, "a file of 0 bytes");
    s = g4_probe_bytes(&m, data, size, out, err);
    return g4_probe_end(out, &m, s, err);
}
