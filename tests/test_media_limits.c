/* test_media_limits.c - what media may take: frames are kept in the size that the model sees, and give the same
 * patches; few bytes do not become many pixels, whoever decodes them; files of gigabytes are refused, or not read, by
 * what their first bytes say. */
#include "test.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "bytes.h"
#include "chat/chat.h"

/* ---- Memory that is counted -------------------------------------------------------------------- */

typedef struct {
    size_t live, peak; /* bytes */
} g4_counted;

static void *g4_counted_alloc(void *user, size_t size, size_t align)
{
    g4_counted *c = user;
    c->live += size;
    if (c->live > c->peak) c->peak = c->live;
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void g4_counted_free(void *user, void *ptr, size_t size)
{
    if (ptr) ((g4_counted *)user)->live -= size;
    free(ptr);
}

static g4_allocator g4_counting(g4_counted *c)
{
    *c = (g4_counted) { 0, 0 };
    return (g4_allocator) { g4_counted_alloc, g4_counted_free, c };
}

static int g4_save_bytes(const char *path, const g4_bytes *b, off_t size) /* with a hole behind them */
{
    FILE *f = fopen(path, "wb");
    if (!f) return 0;
    const int wrote = fwrite(b->data, 1, b->n, f) == b->n;
    const int sized = fflush(f) == 0 && ftruncate(fileno(f), size) == 0;
    return (fclose(f) == 0) & wrote & sized;
}

/* ---- Frames in the size that the model sees ------------------------------------------------------ */

static void g4_put_noise(g4_bytes *b, size_t n)
{
    static uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        if (i % 16 == 0) state = state * 1664525 + 1013904223;
        g4_put(b, &(uint8_t) { (uint8_t)(state >> 24) }, 1);
    }
}

static void g4_expect_same(const g4_image *whole, const g4_image *kept, int tokens, int patch)
{
    g4_halt halt;
    g4_error err = { G4_OK, "" };
    g4_patches a = { 0 }, b = { 0 };
    g4_halt_open(&halt);
    G4_EXPECT(!g4_image_patches(NULL, whole, tokens, patch, 3, &halt, &a, &err), "%s", err.message);
    G4_EXPECT(!g4_image_patches(NULL, kept, tokens, patch, 3, &halt, &b, &err), "%s", err.message);
    G4_EXPECT(a.n == b.n && a.n_tokens == b.n_tokens && a.grid_w == b.grid_w, "%d x %d for %d: %d x %d and %d x %d",
              whole->width, whole->height, tokens, a.grid_w, a.grid_h, b.grid_w, b.grid_h);
    if (a.n == b.n && a.grid_w == b.grid_w)
        G4_EXPECT(!memcmp(a.pixels, b.pixels, (size_t)a.n * (size_t)(patch * patch * 3) * sizeof(float)),
                  "%d x %d for %d: other patches", whole->width, whole->height, tokens);
    g4_patches_free(NULL, &a);
    g4_patches_free(NULL, &b);
}

/* The last ones fill so little of their budget that the size for it, asked again, would be another. */
static void g4_test_fitted(void)
{
    static const int sizes[][2] = { { 640, 480 }, { 499, 1001 }, { 64, 48 },    { 2, 900 },
                                    { 3000, 94 }, { 90, 4000 },  { 1700, 1200 } };
    static const int tokens[] = { 70, 140 }, patches[] = { 16, 2 };
    g4_error err = { G4_OK, "" };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        g4_bytes b = g4_make_y4m(sizes[i][0], sizes[i][1], 2, g4_put_noise);
        g4_video whole;
        G4_EXPECT(!g4_video_decode(&whole, b.data, b.n, NULL, &err), "%s", err.message);
        for (int k = 0; k < 4; k++) {
            const int side = 3 * patches[k / 2], budget = tokens[k % 2];
            g4_video v;
            g4_media_options opt = { .frame_tokens = budget, .frame_side = k < 2 ? 0 : side };
            G4_EXPECT(!g4_video_decode(&v, b.data, b.n, &opt, &err) && v.n_frames == 2, "%s", err.message);
            for (int f = 0; f < v.n_frames; f++) {
                const int area = v.frames[f].width * v.frames[f].height, most = budget * side * side;
                G4_EXPECT(area <= most, "a frame of %d x %d for %d", v.frames[f].width, v.frames[f].height, budget);
                G4_EXPECT(v.frames[f].fitted == (area < sizes[i][0] * sizes[i][1] ? budget : 0), "fitted for %" PRId64,
                          v.frames[f].fitted);
                g4_expect_same(&whole.frames[f], &v.frames[f], budget, patches[k / 2]);
            }
            g4_video_free(&v, &opt);
        }
        g4_video_free(&whole, NULL);
        free(b.data);
    }
}

static void g4_put_grey(g4_bytes *b, size_t n)
{
    static const uint8_t grey[4096];
    for (size_t k; n > 0; n -= k) g4_put(b, grey, k = n < sizeof grey ? n : sizeof grey);
}

static void g4_test_video_memory(void)
{
    const char *path = "build/test_media_limits.y4m";
    g4_error err = { G4_OK, "" };
    g4_video v;
    g4_counted counted;
    g4_allocator a = g4_counting(&counted);
    g4_bytes b = g4_make_y4m(1280, 720, 16, g4_put_grey);
    G4_EXPECT(g4_save_bytes(path, &b, (off_t)b.n), "cannot write %s", path);
    g4_media_options opt = { .allocator = &a, .frame_tokens = 70 };
    G4_EXPECT(!g4_video_load(&v, path, &opt, &err) && v.n_frames == 16, "%s", err.message);
    G4_EXPECT(counted.peak < 20000000, "16 frames took %zu bytes", counted.peak); /* whole ones are 44 million */
    g4_video_free(&v, &opt);

    a = g4_counting(&counted);
    opt = (g4_media_options) { .allocator = &a, .max_video_megapixels = 14 };
    G4_EXPECT(g4_video_load(&v, path, &opt, &err) == G4_ERR_UNSUPPORTED && !v.frames && counted.live == 0 &&
                  counted.peak < 100000 && strstr(err.message, "16 frames of 1280 x 720 to keep"),
              "%s, %zu bytes", err.message, counted.peak);
    opt.max_video_megapixels = 15;
    G4_EXPECT(!g4_video_load(&v, path, &opt, &err), "%s", err.message);
    g4_video_free(&v, &opt);
    opt.max_video_megapixels = 3;
    opt.frame_tokens = 70;
    G4_EXPECT(!g4_video_load(&v, path, &opt, &err), "%s", err.message);
    g4_video_free(&v, &opt);
    remove(path);
    free(b.data);

    static const g4_media_options bad[] = {
        { .frame_tokens = 71 }, { .frame_tokens = -1 },         { .frame_side = 5000 },
        { .frame_side = -1 },   { .max_video_megapixels = -1 },
    };
    b = g4_make_y4m(8, 8, 1, g4_put_noise);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        G4_EXPECT(g4_video_decode(&v, b.data, b.n, &bad[i], &err) == G4_ERR_ARGUMENT, "%zu: %s", i, err.message);
    free(b.data);
}

/* ---- Few bytes, many pixels ------------------------------------------------------------------------- */

static void g4_put_be(g4_bytes *b, uint64_t v, int n)
{
    for (int i = n; i > 0; i--) g4_put(b, &(uint8_t) { (uint8_t)(v >> (8 * (i - 1))) }, 1);
}

static g4_bytes g4_webp_bomb(uint32_t w, uint32_t h)
{
    g4_bytes b = { 0 };
    g4_put_text(&b, "RIFF");
    g4_put_le(&b, 26, 4);
    g4_put_text(&b, "WEBPVP8L");
    g4_put_le(&b, 14, 4);
    g4_put(&b, "\x2f", 1);
    g4_put_le(&b, (w - 1) | (h - 1) << 14, 4);
    g4_put(&b, "\x88\x88\x08\0\0\0\0\0\0", 9);
    return b;
}

/* Frames of which each sets one pixel. */
static g4_bytes g4_gif_bomb(uint32_t w, uint32_t h, int frames)
{
    g4_bytes b = { 0 };
    g4_put_text(&b, "GIF89a");
    g4_put_le(&b, w, 2);
    g4_put_le(&b, h, 2);
    g4_put(&b, "\x80\0\0\0\0\0\xff\xff\xff", 9);
    for (int i = 0; i < frames; i++) g4_put(&b, "\x21\xf9\4\0\x0a\0\0\0,\0\0\0\0\1\0\1\0\0\2\2\x44\1\0", 23);
    g4_put_text(&b, ";");
    return b;
}

/* Frames that change nothing. */
static g4_bytes g4_fli_bomb(uint32_t w, uint32_t h, int frames)
{
    g4_bytes b = { 0 };
    g4_put_le(&b, 128 + 16 * (uint64_t)frames, 4);
    g4_put_le(&b, 0xaf12, 2);
    g4_put_le(&b, (uint64_t)frames, 2);
    g4_put_le(&b, w, 2);
    g4_put_le(&b, h, 2);
    g4_put_le(&b, 8, 2);
    g4_put_le(&b, 3, 2);
    g4_put_le(&b, 40, 4);
    while (b.n < 128) g4_put(&b, "", 1);
    for (int i = 0; i < frames; i++) {
        g4_put_le(&b, 16, 4);
        g4_put_le(&b, 0xf1fa, 10);
        g4_put_le(&b, 0, 2);
    }
    return b;
}

/* A box of ISO media around what stands behind `from`. */
static void g4_put_box(g4_bytes *b, size_t from, const char *name)
{
    g4_bytes inner = { 0 };
    g4_put(&inner, b->data + from, b->n - from);
    b->n = from;
    g4_put_be(b, inner.n + 8, 4);
    g4_put_text(b, name);
    g4_put(b, inner.data, inner.n);
    free(inner.data);
}

/* An AVIF file with one item of a few bytes. */
static g4_bytes g4_avif_bomb(uint32_t w, uint32_t h)
{
    g4_bytes b = { 0 };
    g4_put(&b, "avif\0\0\0\0avifmif1", 16);
    g4_put_box(&b, 0, "ftyp");
    const size_t meta = b.n;
    g4_put_be(&b, 0, 4);
    size_t at = b.n;
    g4_put(&b, "\0\0\0\0\0\0\0\0pict\0\0\0\0\0\0\0\0\0\0\0\0\0", 25);
    g4_put_box(&b, at, "hdlr");
    at = b.n;
    g4_put_be(&b, 1, 6);
    g4_put_box(&b, at, "pitm");
    at = b.n; /* version 0; offsets and lengths of 4 bytes; item 1, one extent */
    g4_put(&b, "\0\0\0\0\x44\0\0\1\0\1\0\0\0\1", 14);
    g4_put_be(&b, 0, 4);
    g4_put_be(&b, 16, 4);
    g4_put_box(&b, at, "iloc");
    at = b.n;
    g4_put_be(&b, 1, 6);
    const size_t entry = b.n;
    g4_put(&b, "\2\0\0\0\0\1\0\0av01\0", 13);
    g4_put_box(&b, entry, "infe");
    g4_put_box(&b, at, "iinf");
    const size_t properties = b.n;
    at = b.n;
    g4_put_be(&b, 0, 4);
    g4_put_be(&b, w, 4);
    g4_put_be(&b, h, 4);
    g4_put_box(&b, at, "ispe");
    at = b.n;
    g4_put(&b, "\x81\0\x0c\0", 4);
    g4_put_box(&b, at, "av1C");
    g4_put_box(&b, properties, "ipco");
    at = b.n;
    g4_put(&b, "\0\0\0\0\0\0\0\1\0\1\2\1\2", 13);
    g4_put_box(&b, at, "ipma");
    g4_put_box(&b, properties, "iprp");
    g4_put_box(&b, meta, "meta");
    return b;
}

/* Is it refused for its bytes by every call, before anybody decodes it? */
static void g4_expect_bomb(const char *name, const g4_bytes *b, int is_video, const char *ffmpeg)
{
    g4_counted counted;
    g4_allocator a = g4_counting(&counted);
    const g4_media_options opt = { .allocator = &a, .ffmpeg = ffmpeg };
    g4_error err = { G4_OK, "" };
    g4_image image;
    g4_video video;
    g4_media_info info;
    g4_status s = g4_image_decode(&image, b->data, b->n, &opt, &err);
    G4_EXPECT(s == G4_ERR_UNSUPPORTED && strstr(err.message, "a byte"), "%s, a picture: %s", name, err.message);
    s = g4_media_probe_data(&info, b->data, b->n, &opt, &err);
    G4_EXPECT(s == G4_ERR_UNSUPPORTED && strstr(err.message, "a byte"), "%s, probed: %s", name, err.message);
    if (is_video) {
        s = g4_video_decode(&video, b->data, b->n, &opt, &err);
        G4_EXPECT(s == G4_ERR_UNSUPPORTED && strstr(err.message, "a byte"), "%s, a video: %s", name, err.message);
    }
    G4_EXPECT(counted.peak < 1 << 20 && counted.live == 0, "%s: %zu bytes", name, counted.peak);
}

static void g4_test_bombs(void)
{
    g4_bytes webp = g4_webp_bomb(16384, 10000), avif = g4_avif_bomb(16384, 10000);
    G4_EXPECT(webp.n == 34, "%zu bytes", webp.n);
    g4_expect_bomb("WebP", &webp, 0, "");
    g4_expect_bomb("AVIF", &avif, 0, "");
    free(webp.data);
    free(avif.data);
    if (system("ffmpeg -version > /dev/null 2>&1") != 0) {
        G4_SKIP("no ffmpeg program");
        return;
    }
    g4_bytes gif = g4_gif_bomb(12800, 12800, 60), fli = g4_fli_bomb(12800, 12800, 60);
    g4_expect_bomb("GIF", &gif, 1, NULL);
    g4_expect_bomb("FLI", &fli, 1, NULL);
    free(gif.data);
    free(fli.data);
    g4_error err = { G4_OK, "" };
    g4_image image;
    g4_media_options opt = { .max_pixels = 1000 }; /* that a decoder is told more does not matter */
    gif = g4_gif_bomb(40, 30, 1);
    G4_EXPECT(g4_image_decode(&image, gif.data, gif.n, &opt, &err) == G4_ERR_UNSUPPORTED, "%s", err.message);
    opt.max_pixels = 1200;
    G4_EXPECT(!g4_image_decode(&image, gif.data, gif.n, &opt, &err), "%s", err.message);
    g4_image_free(&image, &opt);
    free(gif.data);
}

/* ---- Large files ----------------------------------------------------------------------------------- */

#define G4_LARGE ((off_t)3 << 30) /* bytes */

static g4_bytes g4_wav_of(uint32_t front, uint32_t samples)
{
    g4_bytes b = { 0 };
    g4_put_wav_head(&b, 16000, 16 + front + samples);
    if (front > 0) {
        g4_put_text(&b, "LIST");
        g4_put_le(&b, front, 4);
        for (uint32_t i = 0; i < front; i++) g4_put(&b, "", 1);
    }
    g4_put_text(&b, "data");
    g4_put_le(&b, samples, 4);
    for (uint32_t i = 0; i < samples && i < 64000; i++) g4_put(&b, "", 1);
    return b;
}

/* Few bytes do not become hours of sound: at rates that make many samples of one, and of what a program unpacks. */
static void g4_test_sound_bombs(void)
{
    static const char *const program = "build/limits_sounds.sh";
    static const char text[] =
        "#!/bin/sh\nprintf 'RIFF\\377\\377\\377\\377WAVEfmt \\020\\000\\000\\000\\003\\000\\001\\000"
        "\\000\\356\\002\\000\\000\\000\\000\\000\\004\\000\\040\\000data\\377\\377\\377\\377'\n"
        "exec head -c $((4 * $(cat build/limits_samples))) /dev/zero\n"; /* 192 kHz, floats */
    static const struct {
        uint32_t rate, samples; /* of a WAV file of a byte each, or 0, of what the program gives */
        unsigned per_byte;
        int is_good;
    } cases[] = { { 1, 14000, 0, 0 },          { 1, 626, 0, 0 },      { 1, 100, 0, 1 },      { 16, 14000, 0, 0 },
                  { 60, 3000, 0, 1 },          { 1, 626, 20000, 1 },  { 0, 10000001, 0, 0 }, { 0, 9999999, 0, 1 },
                  { 0, 10000001, 4000000, 1 }, { 8000, 100000, 2, 1 } };
    g4_bytes b = { 0 };
    g4_put_text(&b, text);
    if (!g4_save_bytes(program, &b, (off_t)b.n) || chmod(program, 0700)) exit(1);
    free(b.data);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char count[16];
        g4_counted counted;
        g4_allocator a = g4_counting(&counted);
        const g4_media_options opt = { .allocator = &a,
                                       .ffmpeg = program,
                                       .max_pixels_per_byte = cases[i].per_byte / 2 };
        g4_error err = { G4_OK, "" };
        g4_audio sound = { .samples = NULL };
        snprintf(count, sizeof count, "%u", (unsigned)cases[i].samples);
        b = (g4_bytes) { 0 };
        g4_put_text(&b, count);
        if (!g4_save_bytes("build/limits_samples", &b, (off_t)b.n)) exit(1);
        b.n = 0;
        g4_put_text(&b, cases[i].rate ? "RIFF....WAVEfmt " : "fLaC");
        if (cases[i].rate) {
            g4_put_le(&b, 16, 4);
            g4_put_le(&b, 0x10001, 4); /* integers, one channel */
            g4_put_le(&b, cases[i].rate, 4);
            g4_put_le(&b, cases[i].rate, 4);
            g4_put_le(&b, 0x80001, 4); /* bytes and bits of a sample */
            g4_put_text(&b, "data");
            g4_put_le(&b, cases[i].samples, 4);
            for (uint32_t k = 0; k < cases[i].samples; k++) g4_put(&b, "\x80", 1);
        }
        const g4_status s = g4_audio_decode(&sound, b.data, b.n, &opt, &err);
        G4_EXPECT(s == (cases[i].is_good ? G4_OK : G4_ERR_UNSUPPORTED), "case %zu: %s", i, err.message);
        if (s) G4_EXPECT(strstr(err.message, "samples a byte") != NULL, "case %zu: %s", i, err.message);
        G4_EXPECT(counted.peak < 110000000, "case %zu: %zu bytes", i, counted.peak);
        g4_audio_free(&sound, &opt);
        G4_EXPECT(counted.live == 0, "case %zu: %zu bytes left", i, counted.live);
        free(b.data);
    }
    unlink("build/limits_samples");
    unlink(program);
}

/* What a program shows takes no more than its pixels: transparency that comes with them is not kept. */
static void g4_test_shown_pixels(void)
{
    static const char *const program = "build/limits_shows.sh";
    static const char text[] =
        "#!/bin/sh\nprintf 'P7\\nWIDTH 500\\nHEIGHT 400\\nDEPTH 4\\nMAXVAL 255\\nTUPLTYPE RGB_ALPHA\\nENDHDR\\n'\n"
        "exec head -c 800000 /dev/zero\n";
    g4_counted counted;
    g4_allocator a = g4_counting(&counted);
    const g4_media_options opt = { .allocator = &a, .ffmpeg = program };
    g4_error err = { G4_OK, "" };
    g4_image image;
    g4_bytes b = { 0 };
    g4_put_text(&b, text);
    if (!g4_save_bytes(program, &b, (off_t)b.n) || chmod(program, 0700)) exit(1);
    free(b.data);
    const g4_status s = g4_image_decode(&image, G4_FOREIGN, strlen(G4_FOREIGN), &opt, &err);
    G4_EXPECT(!s && image.pixels[0] == 255 && image.pixels[599999] == 255, "%s", err.message);
    G4_EXPECT(counted.peak < 620000, "500 x 400 pixels took %zu bytes", counted.peak);
    g4_image_free(&image, &opt);
    unlink(program);
}

/* Load a sound from a file of that size, and probe it: the status of both. *peak: bytes it took. */
static g4_status g4_load_wav(const g4_bytes *b, off_t size, size_t n_samples, size_t *peak, g4_error *err)
{
    const char *path = "build/test_media_limits.wav";
    g4_counted counted;
    g4_allocator a = g4_counting(&counted);
    const g4_media_options opt = { .allocator = &a, .ffmpeg = "" };
    g4_audio sound;
    g4_media_info info;
    if (!g4_save_bytes(path, b, size)) {
        G4_SKIP("no room for a file with a hole");
        return G4_ERR_IO;
    }
    const g4_status s = g4_audio_load(&sound, path, &opt, err), probed = g4_media_probe(&info, path, &opt, NULL);
    G4_EXPECT(s == probed, "loaded: %s, probed: %s", g4_status_name(s), g4_status_name(probed));
    G4_EXPECT(s || sound.n_samples == n_samples, "%zu samples", sound.n_samples);
    g4_audio_free(&sound, &opt);
    G4_EXPECT(counted.live == 0, "%zu bytes left", counted.live);
    *peak = counted.peak;
    remove(path);
    return s;
}

static void g4_test_wav_files(void)
{
    g4_error err = { G4_OK, "" };
    size_t peak = 0;
    g4_bytes b = g4_wav_of(0, 64000);
    g4_status s = g4_load_wav(&b, G4_LARGE, 16000, &peak, &err); /* what follows is not read */
    if (s == G4_ERR_IO) return;
    G4_EXPECT(!s && peak < 1 << 20, "%s, %zu bytes", err.message, peak);
    free(b.data);
    b = g4_wav_of(0, (uint32_t)G4_LARGE - 44);
    s = g4_load_wav(&b, G4_LARGE, 0, &peak, &err);
    G4_EXPECT(s == G4_ERR_UNSUPPORTED && strstr(err.message, "more than the limit") && peak == 0, "%s, %zu bytes",
              err.message, peak);
    free(b.data);
    b = g4_wav_of(100000, 64000); /* its samples begin behind what is looked at first */
    s = g4_load_wav(&b, (off_t)b.n, 16000, &peak, &err);
    G4_EXPECT(!s, "%s", err.message);
    free(b.data);
    b = (g4_bytes) { 0 };
    g4_put_text(&b, "RIFF    WAVE"); /* then chunks of 0 bytes */
    s = g4_load_wav(&b, G4_LARGE, 0, &peak, &err);
    G4_EXPECT(s == G4_ERR_FORMAT && peak < 70000000, "%s, %zu bytes", err.message, peak);
    free(b.data);
}

static void g4_test_picture_files(void)
{
    static const struct {
        const char *name, *head;
        size_t n;
    } heads[] = {
        { "png", "\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 16 },
        { "jpeg", "\xff\xd8\xff\xe0", 4 },
        { "webp", "RIFF\x1a\0\0\0WEBPVP8L", 16 },
        { "gif", "GIF89a\1\0\1\0", 10 },
        { "bmp", "BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0", 18 },
        { "tiff", "II*\0\x08\0\0\0", 8 },
        { "heic",
          "\0\0\0\x18"
          "ftypheic\0\0\0\0",
          16 },
        { "psd", "8BPS\0\1", 6 },
    };
    const char *path = "build/test_media_limits.bin";
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        g4_counted counted;
        g4_allocator a = g4_counting(&counted);
        g4_media_options opt = { .allocator = &a, .ffmpeg = "" };
        g4_bytes b = { 0 };
        g4_error err = { G4_OK, "" };
        g4_image image;
        g4_put(&b, heads[i].head, heads[i].n);
        if (!g4_save_bytes(path, &b, G4_LARGE)) {
            G4_SKIP("no room for a file with a hole");
        } else {
            G4_EXPECT(g4_image_load(&image, path, &opt, &err) == G4_ERR_UNSUPPORTED && counted.peak == 0 &&
                          strstr(err.message, "3221225472 bytes are more than the limit of 1498764624"),
                      "%s: %s", heads[i].name, err.message);
            opt.max_file_bytes = 1 << 20;
            G4_EXPECT(g4_save_bytes(path, &b, (1 << 20) + 1) &&
                          g4_image_load(&image, path, &opt, &err) == G4_ERR_UNSUPPORTED && counted.peak == 0 &&
                          strstr(err.message, "1048577 bytes are more than the limit of 1048576"),
                      "%s: %s", heads[i].name, err.message);
        }
        free(b.data);
    }
    remove(path);
    const g4_media_options small = { .max_pixels = 1000 }, given = { .max_pixels = 1000, .max_file_bytes = 77 };
    G4_EXPECT(g4_media_max_bytes(NULL, 1) == 1498764624 && g4_media_max_bytes(NULL, 0) == (uint64_t)4 << 30 &&
                  g4_media_max_bytes(&small, 1) == (64 << 20) + 8000 && g4_media_max_bytes(&given, 1) == 77 &&
                  g4_media_max_bytes(&given, 0) == 77,
              "what a caller may read himself");
}

int main(void)
{
    g4_test_fitted();
    g4_test_video_memory();
    g4_test_bombs();
    g4_test_shown_pixels();
    g4_test_sound_bombs();
    g4_test_wav_files();
    g4_test_picture_files();
    return g4_test_end();
}
