/* libFuzzer entry for the y4m reader, replayed by tests/test_media.c on tests/fuzz/corpus_y4m. A success must have a
 * result, a failure a message; no program is started.
 *
 * Input that is not a y4m file describes one: width, height, colour format, range, rate, how many frames are wanted and
 * parameters of frames (a byte each), then the planes. Such a file is read, as many frames come as there are or are
 * wanted, at rising times; without chroma they are grey. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gemma4.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define G4_FUZZ_Y4M_HEAD 8 /* bytes of a description before the planes */

typedef struct {
    const char *name;
    uint8_t columns, rows; /* that share a chroma sample; 0: there is none */
} g4_fuzz_y4m_format;
static const g4_fuzz_y4m_format g4_fuzz_formats[8] = { { "420jpeg", 2, 2 }, { "420mpeg2", 2, 2 }, { "420paldv", 2, 2 },
                                                       { "422", 2, 1 },     { "444", 1, 1 },      { "411", 4, 1 },
                                                       { "mono", 0, 0 },    { "420", 2, 2 } };

static g4_status g4_fuzz_y4m_read(const uint8_t *data, size_t size, int n_frames, g4_video *v)
{
    const g4_media_options opt = { .ffmpeg = "", .max_pixels = 1 << 18, .n_frames = n_frames };
    g4_error err = { G4_OK, "" };
    g4_media_info info;
    const g4_status s = g4_video_decode(v, data, size, &opt, &err);
    if (s && (err.code != s || err.message[0] == 0 || v->frames)) __builtin_trap();
    if (!s && (v->n_frames < 1 || v->seconds[0] != 0)) __builtin_trap();
    for (int i = 1; !s && i < v->n_frames; i++)
        if (!(v->seconds[i] > v->seconds[i - 1])) __builtin_trap();
    if (!s && (g4_media_probe_data(&info, data, size, &opt, NULL) || info.kind != G4_MEDIA_VIDEO ||
               info.width != v->frames[0].width || info.height != v->frames[0].height || info.n_frames < v->n_frames))
        __builtin_trap();
    return s;
}

/* The described file; NULL: it has no frame. */
static uint8_t *g4_fuzz_y4m_write(const uint8_t *data, size_t size, size_t *n, int *n_frames)
{
    const size_t w = 1 + data[0] % 40, h = 1 + data[1] % 40;
    const g4_fuzz_y4m_format *format = &g4_fuzz_formats[data[2] & 7];
    const size_t chroma =
        format->columns ? (w + format->columns - 1) / format->columns * ((h + format->rows - 1) / format->rows) : 0;
    const size_t bytes = w * h + 2 * chroma, planes = size - G4_FUZZ_Y4M_HEAD, frames = planes / bytes;
    if (frames == 0) return NULL;
    uint8_t *file = malloc(size + 200 + frames * 20);
    if (!file) exit(1);
    *n_frames = (int)frames;
    *n = (size_t)sprintf((char *)file, "YUV4MPEG2 W%zu H%zu F%d:%d %sC%s%s\n", w, h, 1 + data[3], 1 + data[4],
                         data[5] & 1 ? "Ip A1:1 " : "", format->name, data[5] & 2 ? " XCOLORRANGE=FULL" : "");
    for (size_t i = 0; i < frames; i++) {
        *n += (size_t)sprintf((char *)file + *n, "FRAME%s\n", data[6] >> (i & 7) & 1 ? " Ip" : "");
        memcpy(file + *n, data + G4_FUZZ_Y4M_HEAD + i * bytes, bytes);
        *n += bytes;
    }
    return file;
}

static void g4_fuzz_y4m_described(const uint8_t *data, size_t size)
{
    const int wanted = 1 + data[7] % 40, is_grey = (data[2] & 7) == 6;
    size_t n;
    int n_frames;
    g4_video v;
    uint8_t *file = g4_fuzz_y4m_write(data, size, &n, &n_frames);
    if (!file) return;
    uint8_t *exact = realloc(file, n); /* so that the sanitizer sees every byte too many */
    if (exact) file = exact;
    if (g4_fuzz_y4m_read(file, n, wanted, &v)) __builtin_trap();
    if (v.n_frames != (wanted < n_frames ? wanted : n_frames)) __builtin_trap();
    for (int i = 0; is_grey && i < v.n_frames; i++) {
        const uint8_t *p = v.frames[i].pixels;
        for (int k = 0; k < v.frames[i].width * v.frames[i].height; k++, p += 3)
            if (p[0] != p[1] || p[1] != p[2]) __builtin_trap();
    }
    g4_video_free(&v, NULL);
    free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g4_video v;
    if (size >= 10 && memcmp(data, "YUV4MPEG2 ", 10) == 0) {
        g4_fuzz_y4m_read(data, size, 7, &v);
        g4_video_free(&v, NULL);
    } else if (size > G4_FUZZ_Y4M_HEAD) {
        g4_fuzz_y4m_described(data, size);
    }
    return 0;
}
