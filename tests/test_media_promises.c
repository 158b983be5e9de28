/* test_media_promises.c - what media calls promise beside their results: a failure leaves everything as it was (each
 * allocation in turn, read and write errors, limits), wrong arguments are errors, the programs that are started see
 * none of our descriptors and usual signals, and how they ended is known whatever the host does with signals. And what
 * g4_media_probe says of a file is what loading it gives. */
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bytes.h"
#include "failing.h"

#define LLVMFuzzerTestOneInput g4_fuzz_probe
#include "fuzz/fuzz_probe.c"

/* ---- Files made here ---------------------------------------------------------------------------- */

static void g4_put_ramp(g4_bytes *b, size_t n)
{
    for (size_t i = 0; i < n; i++) g4_put(b, &(uint8_t) { (uint8_t)(i * 7 + i / 50) }, 1);
}

/* Stereo of 16 bits; `before` bytes of another chunk stand in front of the samples. */
static g4_bytes g4_wav(uint32_t frames, uint32_t rate, uint32_t before)
{
    g4_bytes b = { 0 };
    g4_put_wav_head(&b, rate, 16 + before + frames * 4);
    g4_put_text(&b, "LIST");
    g4_put_le(&b, before, 4);
    g4_put_ramp(&b, before);
    g4_put_text(&b, "data");
    g4_put_le(&b, frames * 4, 4);
    g4_put_ramp(&b, frames * 4);
    return b;
}

static g4_bytes g4_y4m(int w, int h, int frames) { return g4_make_y4m(w, h, frames, g4_put_ramp); }

static int g4_save(const char *path, const void *data, size_t n, mode_t mode)
{
    FILE *f = fopen(path, "wb");
    if (!f) return 0;
    const size_t written = fwrite(data, 1, n, f);
    const int closed = fclose(f) == 0;
    return closed && written == n && chmod(path, mode) == 0;
}
static int g4_save_text(const char *path, const char *text, mode_t mode)
{
    return g4_save(path, text, strlen(text), mode);
}

/* ---- Failures ------------------------------------------------------------------------------------ */

typedef union { /* whatever a call gives out */
    g4_image image;
    g4_audio audio;
    g4_video video;
    g4_patches patches;
    g4_media_info info;
} g4_made;

typedef struct {
    const void *data; /* bytes; NULL: path */
    size_t size;
    const char *path;
    const g4_image *image;
} g4_given;

/* Makes something; what it is goes into `bytes`, and is freed. */
typedef g4_status (*g4_make_fn)(const g4_given *in, g4_made *made, const g4_media_options *opt, g4_bytes *bytes,
                                g4_error *err);

static void g4_keep_image(g4_bytes *bytes, const g4_image *image)
{
    g4_put_le(bytes, (uint64_t)image->width, 4);
    g4_put(bytes, image->pixels, 3 * (size_t)image->width * (size_t)image->height);
}
static g4_status g4_make_image(const g4_given *in, g4_made *made, const g4_media_options *opt, g4_bytes *bytes,
                               g4_error *err)
{
    const g4_status s = in->data ? g4_image_decode(&made->image, in->data, in->size, opt, err)
                                 : g4_image_load(&made->image, in->path, opt, err);
    if (s) return s;
    g4_keep_image(bytes, &made->image);
    g4_image_free(&made->image, opt);
    return s;
}
static g4_status g4_make_audio(const g4_given *in, g4_made *made, const g4_media_options *opt, g4_bytes *bytes,
                               g4_error *err)
{
    const g4_status s = in->data ? g4_audio_decode(&made->audio, in->data, in->size, opt, err)
                                 : g4_audio_load(&made->audio, in->path, opt, err);
    if (s) return s;
    g4_put(bytes, made->audio.samples, made->audio.n_samples * sizeof(float));
    g4_audio_free(&made->audio, opt);
    return s;
}
static g4_status g4_make_video(const g4_given *in, g4_made *made, const g4_media_options *opt, g4_bytes *bytes,
                               g4_error *err)
{
    const g4_status s = in->data ? g4_video_decode(&made->video, in->data, in->size, opt, err)
                                 : g4_video_load(&made->video, in->path, opt, err);
    if (s) return s;
    for (int i = 0; i < made->video.n_frames; i++) g4_keep_image(bytes, &made->video.frames[i]);
    if (made->video.sound) g4_put(bytes, made->video.sound->samples, made->video.sound->n_samples * sizeof(float));
    g4_video_free(&made->video, opt);
    return s;
}
static g4_status g4_make_patches(const g4_given *in, g4_made *made, const g4_media_options *opt, g4_bytes *bytes,
                                 g4_error *err)
{
    const g4_status s = g4_patches_make(&made->patches, in->image, opt, err);
    if (s) return s;
    g4_put(bytes, made->patches.pixels, (size_t)made->patches.n * 768 * sizeof(float));
    g4_patches_close(&made->patches, opt);
    return s;
}
static g4_status g4_make_png(const g4_given *in, g4_made *made, const g4_media_options *opt, g4_bytes *bytes,
                             g4_error *err)
{
    memset(made, 0, sizeof *made);
    return g4_png_write(in->image, g4_put, bytes, opt, err);
}
static g4_status g4_make_info(const g4_given *in, g4_made *made, const g4_media_options *opt, g4_bytes *bytes,
                              g4_error *err)
{
    const g4_status s = in->data ? g4_media_probe_data(&made->info, in->data, in->size, opt, err)
                                 : g4_media_probe(&made->info, in->path, opt, err);
    if (s) return s;
    g4_put(bytes, &made->info, sizeof made->info);
    memset(&made->info, 0, sizeof made->info);
    return s;
}

static long g4_n_calls, g4_n_failures;

static int g4_is_zero(const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++)
        if (b[i]) return 0;
    return 1;
}

/* One call into memory that was not zero, of which nothing may be left when it fails. */
static g4_status g4_make(const char *name, g4_make_fn make, size_t made_bytes, const g4_given *in,
                         const g4_media_options *opt, g4_bytes *bytes, g4_error *err)
{
    g4_made made;
    memset(&made, 0xa5, sizeof made);
    bytes->n = 0;
    *err = (g4_error) { G4_OK, "" };
    const g4_status s = make(in, &made, opt, bytes, err);
    if (s && made_bytes > 0 && !g4_is_zero(&made, made_bytes)) G4_EXPECT(0, "%s failed, its output is not zero", name);
    if (s && (err->code != s || !err->message[0])) G4_EXPECT(0, "%s failed with %d and no message", name, s);
    return s;
}

/* Every allocation of a call fails in turn; after each `step`-th failure the same call succeeds with the same bytes. */
static void g4_check_failures(const char *name, g4_make_fn make, size_t made_bytes, const g4_given *in,
                              const g4_media_options *options, long step)
{
    g4_bytes want = { 0 }, got = { 0 };
    g4_error err;
    g4_media_options opt = *options;
    const g4_status s = g4_make(name, make, made_bytes, in, &opt, &want, &err);
    G4_EXPECT(s == G4_OK && want.n > 0, "%s: %s", name, err.message);
    g4_n_calls++;
    for (long index = 0; s == G4_OK; index++) {
        g4_failing f = { 0, index, 0 };
        const g4_allocator a = g4_failing_allocator(&f);
        opt.allocator = &a;
        const g4_status failed = g4_make(name, make, made_bytes, in, &opt, &got, &err);
        if (f.live != 0) G4_EXPECT(0, "%s, allocation %ld: %ld blocks are left", name, index, f.live);
        if (failed == G4_OK) {
            G4_EXPECT(f.calls == index, "%s: allocation %ld failed, and the call did not", name, index);
            break;
        }
        g4_n_failures++;
        if (failed != G4_ERR_MEMORY) G4_EXPECT(0, "%s, allocation %ld: %s", name, index, err.message);
        if (index % step != 0) continue;
        f = (g4_failing) { 0, -1, 0 };
        const g4_status again = g4_make(name, make, made_bytes, in, &opt, &got, &err);
        if (again || got.n != want.n || memcmp(got.data, want.data, want.n) != 0 || f.live != 0)
            G4_EXPECT(0, "%s after allocation %ld failed: %s", name, index, again ? err.message : "other bytes");
    }
    free(want.data);
    free(got.data);
}

/* A call that must fail in that way. */
static void g4_expect_failure(const char *name, g4_make_fn make, size_t made_bytes, const g4_given *in,
                              const g4_media_options *options, g4_status want)
{
    g4_failing f = { 0, -1, 0 };
    const g4_allocator a = g4_failing_allocator(&f);
    g4_media_options opt = *options;
    g4_bytes bytes = { 0 };
    g4_error err;
    opt.allocator = &a;
    const g4_status s = g4_make(name, make, made_bytes, in, &opt, &bytes, &err);
    g4_n_failures++;
    G4_EXPECT(s == want && f.live == 0, "%s: %s (%s), expected %s; %ld blocks left", name, g4_status_name(s),
              err.message, g4_status_name(want), f.live);
    free(bytes.data);
}

/* ---- Where it is tried ------------------------------------------------------------------------------ */

typedef struct {
    const char *name;
    g4_bytes bytes;
    g4_make_fn make;
    size_t made_bytes;
} g4_sample;

enum { G4_N_SAMPLES = 7, G4_JPEG_SAMPLE = 4 };

/* The first JPEG of the golden pictures with an orientation. */
static g4_bytes g4_golden_jpeg(void)
{
    static const char name[] = "jpeg-exif-6.jpg";
    g4_bytes all = { 0 }, jpeg = { 0 };
    FILE *f = fopen("tests/data/pictures.bin", "rb");
    uint8_t chunk[65536];
    for (size_t n; f && (n = fread(chunk, 1, sizeof chunk, f)) > 0;) g4_put(&all, chunk, n);
    if (f) fclose(f);
    for (size_t pos = 8; pos + 28 <= all.n;) {
        uint32_t field[7];
        for (size_t i = 0; i < 7; i++) {
            const uint8_t *p = all.data + pos + 4 * i;
            field[i] = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        }
        const uint8_t *text = all.data + pos + 28;
        if (field[5] == sizeof name - 1 && !memcmp(text, name, field[5])) g4_put(&jpeg, text + field[5], field[6]);
        pos += 28 + (size_t)field[5] + field[6];
    }
    free(all.data);
    G4_EXPECT(jpeg.n > 0, "no %s in tests/data/pictures.bin", name);
    return jpeg;
}

static void g4_samples_open(g4_sample samples[G4_N_SAMPLES], const g4_image *image)
{
    static const char *const names[] = { "a PNG", "a PPM", "a WAV", "a y4m", "a JPEG", "a WAV of 16 kHz", "text PGM" };
    for (int i = 0; i < G4_N_SAMPLES; i++)
        samples[i] = (g4_sample) { names[i], { 0 }, g4_make_image, sizeof(g4_image) };
    g4_png_write(image, g4_put, &samples[0].bytes, NULL, NULL);
    g4_put_text(&samples[1].bytes, "P6 30 20 255\n");
    g4_put_ramp(&samples[1].bytes, 1800);
    samples[2] = (g4_sample) { names[2], g4_wav(3000, 44100, 4), g4_make_audio, sizeof(g4_audio) };
    samples[3] = (g4_sample) { names[3], g4_y4m(16, 12, 9), g4_make_video, sizeof(g4_video) };
    samples[4].bytes = g4_golden_jpeg();
    samples[5] = (g4_sample) { names[5], g4_wav(3000, 16000, 4), g4_make_audio, sizeof(g4_audio) };
    g4_put_text(&samples[6].bytes, "P2 3 2 9\n1 2 3 4 5 6\n");
}

static void g4_test_failures(const g4_image *image)
{
    const g4_media_options opt = { .ffmpeg = "", .n_frames = 4 };
    g4_sample samples[G4_N_SAMPLES];
    g4_samples_open(samples, image);
    for (int i = 0; i < G4_N_SAMPLES; i++) {
        const g4_sample *s = &samples[i];
        const char *path = "build/promises.bin";
        const g4_given data = { .data = s->bytes.data, .size = s->bytes.n }, file = { .path = path };
        G4_EXPECT(g4_save(path, s->bytes.data, s->bytes.n, 0600), "cannot write %s", path);
        g4_check_failures(s->name, s->make, s->made_bytes, &data, &opt, 1);
        g4_check_failures(s->name, s->make, s->made_bytes, &file, &opt, 1);
        g4_check_failures(s->name, g4_make_info, sizeof(g4_media_info), &data, &opt, 1);
        g4_check_failures(s->name, g4_make_info, sizeof(g4_media_info), &file, &opt, 1);
        /* limits, and files that end early */
        const g4_media_options few = { .ffmpeg = "", .max_pixels = 5, .max_samples = 5, .n_frames = 4 };
        g4_expect_failure(s->name, s->make, s->made_bytes, &data, &few, G4_ERR_UNSUPPORTED);
        g4_expect_failure(s->name, s->make, s->made_bytes, &file, &few, G4_ERR_UNSUPPORTED);
        g4_expect_failure(s->name, g4_make_info, sizeof(g4_media_info), &file, &few, G4_ERR_UNSUPPORTED);
        const g4_media_options small = { .ffmpeg = "", .max_file_bytes = 17, .n_frames = 4 };
        if (s->make != g4_make_video)
            g4_expect_failure(s->name, s->make, s->made_bytes, &file, &small, G4_ERR_UNSUPPORTED);
        const g4_given cut = { .data = s->bytes.data, .size = s->bytes.n - s->bytes.n / 3 };
        if (s->make != g4_make_audio) /* which is shorter then */
            g4_expect_failure(s->name, s->make, s->made_bytes, &cut, &opt, G4_ERR_FORMAT);
        unlink(path);
        g4_expect_failure(s->name, s->make, s->made_bytes, &file, &opt, G4_ERR_IO);
        g4_expect_failure(s->name, g4_make_info, sizeof(g4_media_info), &file, &opt, G4_ERR_IO);
        const g4_given folder = { .path = "tests" };
        g4_expect_failure(s->name, s->make, s->made_bytes, &folder, &opt, G4_ERR_IO);
        g4_expect_failure(s->name, g4_make_info, sizeof(g4_media_info), &folder, &opt, G4_ERR_IO);
    }
    const g4_given picture = { .image = image };
    g4_check_failures("patches", g4_make_patches, sizeof(g4_patches), &picture, &opt, 1);
    g4_check_failures("writing a PNG", g4_make_png, 0, &picture, &opt, 1);
    for (int i = 0; i < G4_N_SAMPLES; i++) free(samples[i].bytes.data);
}

/* ---- Errors of the writer ----------------------------------------------------------------------------- */

typedef struct {
    g4_bytes bytes;
    int calls, fail_at;
} g4_bad_writer;

static int g4_bad_write(void *user, const void *data, size_t n)
{
    g4_bad_writer *w = user;
    return w->calls++ == w->fail_at ? 1 : g4_put(&w->bytes, data, n);
}

static void g4_test_write_errors(const g4_image *image)
{
    g4_bad_writer whole = { .fail_at = -1 };
    g4_error err;
    G4_EXPECT(!g4_png_write(image, g4_bad_write, &whole, NULL, &err), "%s", err.message);
    for (int i = 0; i < whole.calls; i++) {
        g4_bad_writer w = { .fail_at = i };
        G4_EXPECT(g4_png_write(image, g4_bad_write, &w, NULL, &err) == G4_ERR_IO && w.calls == i + 1,
                  "write %d of %d failed: %s, %d calls", i, whole.calls, err.message, w.calls);
        g4_n_failures++;
        w.bytes.n = 0;
        w.fail_at = -1;
        G4_EXPECT(!g4_png_write(image, g4_bad_write, &w, NULL, &err) && w.bytes.n == whole.bytes.n &&
                      !memcmp(w.bytes.data, whole.bytes.data, w.bytes.n),
                  "other bytes after write %d failed", i);
        free(w.bytes.data);
    }
    free(whole.bytes.data);
}

/* ---- Misuse ---------------------------------------------------------------------------------------------- */

static void g4_refused(g4_status s, const g4_error *err, const char *what)
{
    G4_EXPECT(s == G4_ERR_ARGUMENT && err->code == s && err->message[0] && !strchr(err->message, '\n'), "%s: %s", what,
              g4_status_name(s));
}

static void g4_test_null(const g4_image *image)
{
    g4_error err = { G4_OK, "" };
    g4_made m;
    const char *path = "tests/test.h", *data = "P5 1 1 255\nx";
    const size_t n = strlen(data);
    g4_refused(g4_image_load(NULL, path, NULL, &err), &err, "out is NULL");
    g4_refused(g4_image_load(&m.image, NULL, NULL, &err), &err, "path is NULL");
    g4_refused(g4_image_decode(NULL, data, n, NULL, &err), &err, "out is NULL");
    g4_refused(g4_image_decode(&m.image, NULL, n, NULL, &err), &err, "data is NULL");
    g4_refused(g4_image_decode(&m.image, data, 0, NULL, &err), &err, "no bytes");
    g4_refused(g4_audio_load(NULL, path, NULL, &err), &err, "out is NULL");
    g4_refused(g4_audio_load(&m.audio, NULL, NULL, &err), &err, "path is NULL");
    g4_refused(g4_audio_decode(NULL, data, n, NULL, &err), &err, "out is NULL");
    g4_refused(g4_audio_decode(&m.audio, NULL, n, NULL, &err), &err, "data is NULL");
    g4_refused(g4_video_load(NULL, path, NULL, &err), &err, "out is NULL");
    g4_refused(g4_video_load(&m.video, NULL, NULL, &err), &err, "path is NULL");
    g4_refused(g4_video_decode(NULL, data, n, NULL, &err), &err, "out is NULL");
    g4_refused(g4_video_decode(&m.video, NULL, n, NULL, &err), &err, "data is NULL");
    g4_refused(g4_media_probe(NULL, path, NULL, &err), &err, "out is NULL");
    g4_refused(g4_media_probe(&m.info, NULL, NULL, &err), &err, "path is NULL");
    g4_refused(g4_media_probe_data(NULL, data, n, NULL, &err), &err, "out is NULL");
    g4_refused(g4_media_probe_data(&m.info, NULL, n, NULL, &err), &err, "data is NULL");
    g4_refused(g4_patches_make(NULL, image, NULL, &err), &err, "out is NULL");
    g4_refused(g4_patches_make(&m.patches, NULL, NULL, &err), &err, "image is NULL");
    g4_refused(g4_png_write(NULL, g4_put, NULL, NULL, &err), &err, "image is NULL");
    g4_refused(g4_png_write(image, NULL, NULL, NULL, &err), &err, "write is NULL");
    G4_EXPECT(g4_image_load(NULL, NULL, NULL, NULL) == G4_ERR_ARGUMENT, "all is NULL");
    G4_EXPECT(g4_media_probe(NULL, NULL, NULL, NULL) == G4_ERR_ARGUMENT, "all is NULL");
    G4_EXPECT(g4_png_write(NULL, NULL, NULL, NULL, NULL) == G4_ERR_ARGUMENT, "all is NULL");
    g4_image_free(NULL, NULL);
    g4_audio_free(NULL, NULL);
    g4_video_free(NULL, NULL);
    g4_patches_close(NULL, NULL);
    g4_boxes_free(NULL, 3, NULL);
    const g4_audio silent = { .n_samples = (size_t)1 << 30 };
    G4_EXPECT(g4_audio_block(&silent, 0) == 0 && g4_audio_mel(&silent, NULL) == 0, "sound without samples");
    m.video = (g4_video) { .n_frames = 3 };
    g4_video_free(&m.video, NULL);
    G4_EXPECT(g4_image_tokens(100, 100, 0, NULL, NULL) == 256, "no targets");
    g4_box *boxes;
    int n_boxes = 7;
    g4_refused(g4_boxes_read(NULL, &n_boxes, "[]", 2, 9, 9, NULL, &err), &err, "out is NULL");
    g4_refused(g4_boxes_read(&boxes, NULL, "[]", 2, 9, 9, NULL, &err), &err, "n is NULL");
    g4_refused(g4_boxes_read(&boxes, &n_boxes, NULL, 2, 9, 9, NULL, &err), &err, "text is NULL");
    G4_EXPECT(n_boxes == 0, "%d boxes", n_boxes);
    g4_refused(g4_boxes_read(&boxes, &n_boxes, "[]", 2, -9, 9, NULL, &err), &err, "a width of -9");
}

static void g4_test_sizes(const g4_image *image)
{
    static const uint8_t red[3] = { 255, 0, 0 };
    static const int box[4] = { INT_MIN, INT_MIN, INT_MAX, INT_MAX };
    const size_t row = 3 * (size_t)image->width;
    const g4_image bad[] = {
        { .pixels = NULL, .width = 3, .height = 3 },
        { .pixels = image->pixels, .width = 0, .height = 3 },
        { .pixels = image->pixels, .width = -1, .height = 3 },
        { .pixels = image->pixels, .width = 3, .height = INT_MIN },
        { .pixels = image->pixels, .width = 3, .height = 2, .stride = 8 },
        { .pixels = image->pixels, .width = 3, .height = 2, .stride = SIZE_MAX },
        { .pixels = image->pixels, .width = 3, .height = INT_MAX, .stride = SIZE_MAX / 4 },
        { .pixels = image->pixels, .width = INT_MAX, .height = INT_MAX, .stride = SIZE_MAX - 2 },
    };
    g4_error err = { G4_OK, "" };
    g4_patches patches;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        g4_refused(g4_patches_make(&patches, &bad[i], NULL, &err), &err, "patches of a picture that is none");
        G4_EXPECT(g4_is_zero(&patches, sizeof patches), "patches of picture %zu", i);
        g4_refused(g4_png_write(&bad[i], g4_put, NULL, NULL, &err), &err, "a PNG of a picture that is none");
    }
    uint8_t *pixels = malloc(row * (size_t)image->height);
    if (!pixels) exit(1);
    memcpy(pixels, image->pixels, row * (size_t)image->height);
    g4_draw_box(NULL, 3, 3, 0, box, "x", red);
    g4_draw_box(pixels, image->width, image->height, 0, NULL, "x", red);
    g4_draw_box(pixels, image->width, image->height, 0, box, "x", NULL);
    g4_draw_box(pixels, -3, image->height, 0, box, "x", red);
    g4_draw_box(pixels, image->width, 0, 0, box, "x", red);
    g4_draw_box(pixels, image->width, image->height, row - 1, box, "x", red);
    G4_EXPECT(!memcmp(pixels, image->pixels, row * (size_t)image->height), "something was drawn");
    free(pixels);
    int w = -7, h = -7;
    G4_EXPECT(g4_image_tokens(-1, 5, 0, &w, &h) == 0 && g4_image_tokens(5, 0, 0, &w, &h) == 0 &&
                  g4_image_tokens(5, 5, -3, &w, &h) == 0,
              "soft tokens of no picture");
}

static void g4_test_bad_options(void)
{
    const char *data = "P5 1 1 255\nx";
    g4_failing f = { 0, -1, 0 };
    const g4_allocator half = { g4_failing_alloc, NULL, &f };
    const g4_media_options bad[] = { { .n_frames = -1 }, { .max_frames = -5 },        { .fps = -1 },
                                     { .fps = NAN },     { .fps = (double)INFINITY }, { .allocator = &half } };
    g4_error err = { G4_OK, "" };
    g4_image image;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memset(&image, 1, sizeof image);
        g4_refused(g4_image_decode(&image, data, strlen(data), &bad[i], &err), &err, "options out of range");
        G4_EXPECT(g4_is_zero(&image, sizeof image), "options %zu", i);
    }
}

/* ---- Programs ----------------------------------------------------------------------------------------------- */

/* This test as the program that the library starts: it writes a picture of one pixel, unless something around it is not
 * as it should be. */
static int g4_spy(void)
{
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    for (int fd = 3; fd < 256; fd++) {
        if (fcntl(fd, F_GETFD) == -1) continue;
        fprintf(stderr, "descriptor %d is open\n", fd);
        return 1;
    }
    for (int number = 1; number < 32; number++) {
        struct sigaction action;
        if (sigismember(&mask, number) == 1) {
            fprintf(stderr, "signal %d is blocked\n", number);
            return 1;
        }
        if ((number != SIGPIPE && number != SIGCHLD) || sigaction(number, NULL, &action) != 0) continue;
        if (action.sa_handler == SIG_DFL) continue;
        fprintf(stderr, "signal %d is ignored\n", number);
        return 1;
    }
    fwrite("P6 1 1 255\nabc", 1, 14, stdout);
    return 0;
}
static const char *g4_spy_path; /* of this program */
static const char g4_foreign[] = "build/promises_foreign.xpm";

static void g4_no_signal(int number) { (void)number; }

/* How programs end, under a host that treats SIGCHLD in each of these ways. */
static void g4_test_status(void)
{
    g4_error err;
    g4_image image;
    G4_EXPECT(
        g4_save_text("build/good.sh", "#!/bin/sh\nprintf 'P6 1 1 255\\nabc'\n", 0700) &&
            g4_save_text("build/bad.sh", "#!/bin/sh\nprintf 'P6 1 1 255\\nabc'\necho broken >&2\nexit 3\n", 0700) &&
            g4_save_text("build/killed.sh", "#!/bin/sh\nprintf 'P6 1 1 255\\nabc'\nkill -9 $$\n", 0700) &&
            g4_save_text("build/noisy.sh", "#!/bin/sh\necho a remark >&2\nprintf 'P6 1 1 255\\nabc'\n", 0700),
        "cannot write programs");
    for (int mode = 0; mode < 4; mode++) {
        static const char *const modes[] = { "by default", "ignored", "not waited for", "handled" };
        struct sigaction action, before;
        memset(&action, 0, sizeof action);
        action.sa_handler = mode == 1 ? SIG_IGN : mode == 3 ? g4_no_signal : SIG_DFL;
        action.sa_flags = mode == 2 ? SA_NOCLDWAIT : 0;
        sigaction(SIGCHLD, &action, &before);
        for (int i = 0; i < 5; i++) {
            static const char *const names[] = { "build/good.sh", "build/noisy.sh", "build/bad.sh", "build/killed.sh",
                                                 "build/no-such-ffmpeg" };
            static const g4_status want[] = { G4_OK, G4_OK, G4_ERR_FORMAT, G4_ERR_FORMAT, G4_ERR_UNSUPPORTED };
            const g4_media_options opt = { .ffmpeg = names[i] };
            const g4_status s = g4_image_load(&image, g4_foreign, &opt, &err);
            G4_EXPECT(s == want[i], "SIGCHLD %s, %s: %s", modes[mode], names[i], s ? err.message : "no failure");
            if (i == 2) G4_EXPECT(strstr(err.message, "broken") != NULL, "%s", err.message);
            if (i == 4) G4_EXPECT(strstr(err.message, "no-such-ffmpeg") != NULL, "%s", err.message);
            g4_image_free(&image, &opt);
        }
        errno = 0;
        G4_EXPECT(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "SIGCHLD %s: a child is left", modes[mode]);
        sigaction(SIGCHLD, &before, NULL);
    }
    static const char *const made[] = { "build/good.sh", "build/bad.sh", "build/killed.sh", "build/noisy.sh" };
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) unlink(made[i]);
}

/* Descriptors that are open here. */
static int g4_count_open(void)
{
    int n = 0;
    for (int fd = 0; fd < 256; fd++) n += fcntl(fd, F_GETFD) != -1;
    return n;
}

typedef struct {
    const char *path;
    int rounds, kind, failed; /* kind 0: picture, 1: video, 2: bytes in memory */
    g4_error err;             /* of the latest failure */
} g4_loader;

static void *g4_load_often(void *user)
{
    g4_loader *l = user;
    const g4_media_options opt = { .ffmpeg = g4_spy_path, .max_program_bytes = UINT64_MAX }; /* sanitizers take more */
    for (int i = 0; i < l->rounds; i++) {
        g4_image image = { .width = 0 };
        g4_video video = { .n_frames = 0 };
        if (l->kind == 0) l->failed += g4_image_load(&image, l->path, &opt, &l->err) != G4_OK;
        if (l->kind == 2) l->failed += g4_image_decode(&image, G4_FOREIGN, strlen(G4_FOREIGN), &opt, &l->err) != G4_OK;
        if (l->kind == 1) l->failed += g4_video_load(&video, l->path, &opt, &l->err) != G4_OK;
        g4_video_free(&video, &opt);
        g4_image_free(&image, &opt);
    }
    return NULL;
}

/* Programs that several threads start while others read files: none sees a descriptor beyond its three. */
static void g4_test_descriptors(void)
{
    g4_bytes y4m = g4_y4m(64, 48, 30);
    G4_EXPECT(g4_save("build/spy.y4m", y4m.data, y4m.n, 0600), "cannot write to build/");
    const int before = g4_count_open();
    g4_loader loaders[4] = { { .path = g4_foreign, .rounds = 15 },
                             { .path = g4_foreign, .rounds = 15, .kind = 2 },
                             { .path = "build/spy.y4m", .rounds = 150, .kind = 1 },
                             { .path = "build/spy.y4m", .rounds = 150, .kind = 1 } };
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, g4_load_often, &loaders[i])) exit(1);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < 4; i++)
        G4_EXPECT(loaders[i].failed == 0, "loader %d: %d failed: %s", i, loaders[i].failed, loaders[i].err.message);
    G4_EXPECT(g4_count_open() == before, "%d descriptors are open, %d were", g4_count_open(), before);
    free(y4m.data);
    unlink("build/spy.y4m");
}

/* A host that ignores signals and blocks others does not pass that on, nor that its own descriptors are closed. */
static void g4_test_signals(void)
{
    sigset_t blocked, mask;
    g4_error err = { G4_OK, "" };
    g4_image image;
    const g4_media_options opt = { .ffmpeg = g4_spy_path, .max_program_bytes = UINT64_MAX };
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGUSR1);
    sigaddset(&blocked, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &blocked, &mask);
    void (*const pipe_before)(int) = signal(SIGPIPE, SIG_IGN);
    void (*const child_before)(int) = signal(SIGCHLD, SIG_IGN);
    G4_EXPECT(!g4_image_load(&image, g4_foreign, &opt, &err), "%s", err.message);
    g4_image_free(&image, &opt);
    signal(SIGPIPE, pipe_before);
    signal(SIGCHLD, child_before);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);

    const int input = dup(0);
    if (input >= 0) fcntl(input, F_SETFD, FD_CLOEXEC);
    close(0); /* the next that is opened is 0 */
    G4_EXPECT(!g4_image_load(&image, g4_foreign, &opt, &err), "without a standard input: %s", err.message);
    g4_image_free(&image, &opt);
    G4_EXPECT(!g4_image_decode(&image, G4_FOREIGN, strlen(G4_FOREIGN), &opt, &err), "without one, bytes: %s",
              err.message);
    g4_image_free(&image, &opt);
    if (input >= 0) dup2(input, 0);
    if (input >= 0) close(input);
}

/* ---- What a file is -------------------------------------------------------------------------------------------- */

static void g4_expect_info(const char *path, g4_media_kind kind, const char *format, int w, int h, int rate,
                           int channels, double seconds, int64_t frames, double fps)
{
    g4_error err = { G4_OK, "" };
    g4_media_info i;
    const g4_status s = g4_media_probe(&i, path, NULL, &err);
    G4_EXPECT(s == G4_OK, "%s: %s", path, err.message);
    if (s) return;
    G4_EXPECT(i.kind == kind && strstr(i.format, format), "%s: kind %d, format %s", path, i.kind, i.format);
    G4_EXPECT(i.width == w && i.height == h, "%s: %d x %d", path, i.width, i.height);
    G4_EXPECT(i.sample_rate == rate && i.channels == channels, "%s: %d Hz, %d channels", path, i.sample_rate,
              i.channels);
    G4_EXPECT(fabs(i.seconds - seconds) < 0.03 && i.n_frames == frames && fabs(i.fps - fps) < 1e-3,
              "%s: %g s, %lld frames, %g a second", path, i.seconds, (long long)i.n_frames, i.fps);
}

static void g4_test_probe(const g4_image *image)
{
    static const char *const formats[] = { "png", "pnm", "wav", "y4m", "jpeg", "wav", "pnm" };
    const g4_media_options opt = { .ffmpeg = "" };
    g4_sample samples[G4_N_SAMPLES];
    g4_error err;
    g4_samples_open(samples, image);
    for (int i = 0; i < G4_N_SAMPLES; i++) {
        const g4_bytes *b = &samples[i].bytes;
        g4_media_info info, file;
        G4_EXPECT(g4_save("build/probe.bin", b->data, b->n, 0600), "cannot write");
        const g4_status s = g4_media_probe_data(&info, b->data, b->n, &opt, &err);
        G4_EXPECT(!s && !strcmp(info.format, formats[i]), "%s: %s", samples[i].name, s ? err.message : info.format);
        G4_EXPECT(!g4_media_probe(&file, "build/probe.bin", &opt, &err) && !memcmp(&file, &info, sizeof info),
                  "%s: another answer from a file", samples[i].name);
        g4_made m;
        if (info.kind == G4_MEDIA_IMAGE && !g4_image_decode(&m.image, b->data, b->n, &opt, &err)) {
            G4_EXPECT(m.image.width == info.width && m.image.height == info.height, "%s: %d x %d, but %d x %d",
                      samples[i].name, info.width, info.height, m.image.width, m.image.height);
            g4_image_free(&m.image, &opt);
        } else if (info.kind == G4_MEDIA_AUDIO && !g4_audio_decode(&m.audio, b->data, b->n, &opt, &err)) {
            G4_EXPECT(fabs((double)m.audio.n_samples / 16000 - info.seconds) < 1e-4 && info.channels == 2,
                      "%s: %g s, %d channels", samples[i].name, info.seconds, info.channels);
            g4_audio_free(&m.audio, &opt);
        } else {
            G4_EXPECT(info.kind == G4_MEDIA_VIDEO && info.width == 16 && info.height == 12 && info.n_frames == 9 &&
                          fabs(info.fps - 25) < 1e-9 && fabs(info.seconds - 0.36) < 1e-9,
                      "%s: kind %d", samples[i].name, info.kind);
        }
        free(b->data);
    }
    g4_bytes far = g4_wav(16000, 8000, 100001 & ~1u); /* its samples begin behind the first 64 KiB */
    G4_EXPECT(g4_save("build/probe.bin", far.data, far.n, 0600), "cannot write");
    g4_expect_info("build/probe.bin", G4_MEDIA_AUDIO, "wav", 0, 0, 8000, 2, 2, 0, 0);
    free(far.data);
    unlink("build/probe.bin");
    g4_media_info info;
    G4_EXPECT(g4_media_probe(&info, g4_foreign, &opt, &err) == G4_ERR_UNSUPPORTED && info.kind == G4_MEDIA_UNKNOWN,
              "%s", err.message);
    const g4_media_options other = { .ffmpeg = "avconv" };
    G4_EXPECT(g4_media_probe(&info, g4_foreign, &other, &err) == G4_ERR_UNSUPPORTED && strstr(err.message, "avconv"),
              "%s", err.message);
    const g4_media_options absent = { .ffmpeg = "build/no-such-ffmpeg-7" };
    G4_EXPECT(g4_media_probe(&info, g4_foreign, &absent, &err) == G4_ERR_UNSUPPORTED &&
                  strstr(err.message, "no-such-ffprobe-7"),
              "%s", err.message);
}

static void g4_test_ffprobe(void)
{
    if (system("ffmpeg -version > /dev/null 2>&1 && ffprobe -version > /dev/null 2>&1") != 0) {
        G4_SKIP("no ffmpeg or ffprobe program");
        return;
    }
    const int rc =
        system("cd build && ffmpeg -v error -y -f lavfi -i testsrc=d=2:s=64x32 -f lavfi -i sine=d=2 -c:v mpeg4"
               " -metadata:s:v rotate=90 promises.mp4 && ffmpeg -v error -y -i promises.mp4 -c copy promises.mkv &&"
               " ffmpeg -v error -y -i promises.mp4 -frames:v 1 promises.bmp &&"
               " ffmpeg -v error -y -f lavfi -i testsrc=d=2:s=64x32:r=7 promises.gif &&"
               " ffmpeg -v error -y -f lavfi -i sine=d=2 -ac 2 promises.flac");
    G4_EXPECT(rc == 0, "ffmpeg could not make the files: %d", rc);
    static const char *const paths[] = { "build/promises.mp4", "build/promises.mkv", "build/promises.bmp",
                                         "build/promises.gif", "build/promises.flac" };
    g4_error err;
    g4_video video;
    int w = 64, h = 32; /* some versions do not write the rotation */
    if (!g4_video_load(&video, paths[0], NULL, &err)) {
        w = video.frames[0].width;
        h = video.frames[0].height;
        g4_video_free(&video, NULL);
    }
    g4_expect_info(paths[0], G4_MEDIA_VIDEO, "mp4", w, h, 44100, 1, 2, 50, 25);
    g4_expect_info(paths[1], G4_MEDIA_VIDEO, "matroska", 64, 32, 44100, 1, 2.02, 51, 25);
    g4_expect_info(paths[2], G4_MEDIA_IMAGE, "bmp", w, h, 0, 0, 0, 0, 0);
    g4_expect_info(paths[3], G4_MEDIA_VIDEO, "gif", 64, 32, 0, 0, 2, 14, 7);
    g4_expect_info(paths[4], G4_MEDIA_AUDIO, "flac", 0, 0, 44100, 2, 2, 0, 0);
    g4_image first; /* of an animation, which no program is asked for */
    const g4_media_options alone = { .ffmpeg = "" };
    G4_EXPECT(!g4_image_load(&first, paths[3], &alone, &err) && first.width == 64 && first.height == 32, "%s",
              err.message);
    g4_image_free(&first, &alone);
    g4_media_info info;
    G4_EXPECT(g4_media_probe(&info, g4_foreign, NULL, &err) == G4_ERR_FORMAT && info.kind == G4_MEDIA_UNKNOWN, "%s",
              err.message);

    const g4_media_options opt = { .n_frames = 2, .want_sound = 1 };
    g4_check_failures("a video by ffmpeg", g4_make_video, sizeof(g4_video), &(g4_given) { .path = paths[1] }, &opt, 8);
    g4_check_failures("a picture by ffmpeg", g4_make_image, sizeof(g4_image), &(g4_given) { .path = paths[2] }, &opt,
                      8);
    g4_check_failures("sound by ffmpeg", g4_make_audio, sizeof(g4_audio), &(g4_given) { .path = paths[4] }, &opt, 8);
    g4_check_failures("what ffprobe says", g4_make_info, sizeof(g4_media_info), &(g4_given) { .path = paths[0] }, &opt,
                      8);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) unlink(paths[i]);
}

/* All corpora of media through the prober. */
static void g4_replay_probe(void)
{
    static const char *const folders[] = { "png", "jpeg", "pnm", "wav", "y4m" };
    int n = 0;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char path[600];
        snprintf(path, sizeof path, "tests/fuzz/corpus_%s", folders[i]);
        DIR *d = opendir(path);
        for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
            static uint8_t data[1 << 16];
            snprintf(path, sizeof path, "tests/fuzz/corpus_%s/%.300s", folders[i], e->d_name);
            FILE *f = e->d_name[0] == '.' ? NULL : fopen(path, "rb");
            if (!f) continue;
            const size_t size = fread(data, 1, sizeof data, f);
            fclose(f);
            n += g4_fuzz_probe(data, size) == 0; /* it traps when something is wrong */
        }
        if (d) closedir(d);
    }
    G4_EXPECT(n > 100, "%d inputs", n);
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "-v")) return g4_spy();
    g4_spy_path = argv[0];
    for (int fd = 3; fd < 256; fd++) { /* what this test was started with is not ours */
        const int flags = fcntl(fd, F_GETFD);
        if (flags != -1) fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
    }
    g4_bytes pixels = { 0 };
    g4_put_ramp(&pixels, 90 * 40 * 3);
    const g4_image image = { .pixels = pixels.data, .width = 90, .height = 40 };
    G4_EXPECT(g4_save_foreign(g4_foreign), "cannot write to build/");
    g4_test_null(&image);
    g4_test_sizes(&image);
    g4_test_bad_options();
    g4_test_failures(&image);
    g4_test_write_errors(&image);
    g4_test_probe(&image);
    g4_test_status();
    g4_test_descriptors();
    g4_test_signals();
    g4_test_ffprobe();
    g4_replay_probe();
    printf("%ld calls, of which every allocation, read, write and limit failed in turn: %ld failures\n", g4_n_calls,
           g4_n_failures);
    free(pixels.data);
    unlink(g4_foreign);
    return g4_test_end();
}
