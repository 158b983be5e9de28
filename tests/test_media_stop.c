/* test_media_stop.c - every kind of media call on a large input, ended by another thread and by deadlines at several
 * moments: it says that it was cancelled, leaves nothing allocated and an output of zeros, and the longest time until
 * it returned is printed. The bounds that are asserted are generous, for busy machines. */
#include "test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "failing.h"

#define G4_STOP_WORK 0.5 /* seconds of work after which a call must have returned ... */
#define G4_STOP_BOUND 60 /* ... and by the clock on the wall, however busy the machine is */

static double g4_clock(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static double g4_now(void) { return g4_clock(CLOCK_MONOTONIC); }
static double g4_cpu(void) { return g4_clock(CLOCK_PROCESS_CPUTIME_ID); }

static void g4_sleep(double seconds)
{
    const struct timespec t = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };
    nanosleep(&t, NULL);
}

/* ---- Large inputs ----------------------------------------------------------------------------- */

static void g4_put_zeros(g4_bytes *b, size_t n)
{
    static const uint8_t zeros[65536];
    for (size_t count; n > 0; n -= count) {
        count = n < sizeof zeros ? n : sizeof zeros;
        g4_put(b, zeros, count);
    }
}
/* Noise that packs a little. */
static void g4_put_noise(g4_bytes *b, size_t n)
{
    uint32_t x = 12345;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        const uint8_t v = (uint8_t)(x >> 26);
        g4_put(b, &v, 1);
    }
}

/* A JPEG of one component whose blocks take two bits each, all of them zero, with an orientation. */
static g4_bytes g4_jpeg(int w, int h, int progressive, uint8_t orientation)
{
    static const uint8_t tables[] = { 0xff, 0xd8, 0xff, 0xc4, 0, 20, 0x00, 1,    0, 0,  0,    0,    0, 0,  0, 0, 0, 0,
                                      0,    0,    0,    0,    0, 0,  0xff, 0xc4, 0, 20, 0x10, 1,    0, 0,  0, 0, 0, 0,
                                      0,    0,    0,    0,    0, 0,  0,    0,    0, 0,  0xff, 0xdb, 0, 67, 0 };
    const uint8_t exif[] = { 0xff, 0xe1, 0,    34, 'E', 'x', 'i', 'f', 0, 0, 'I',         'I', 42, 0, 8, 0, 0, 0,
                             1,    0,    0x12, 1,  3,   0,   1,   0,   0, 0, orientation, 0,   0,  0, 0, 0, 0, 0 };
    const uint8_t frame[] = { 0xff,       progressive ? 0xc2 : 0xc1, 0,          11, 8, (uint8_t)(h >> 8),
                              (uint8_t)h, (uint8_t)(w >> 8),         (uint8_t)w, 1,  1, 0x11,
                              0 };
    const size_t blocks = (size_t)((w + 7) / 8) * (size_t)((h + 7) / 8);
    g4_bytes b = { 0 };
    g4_put(&b, tables, sizeof tables);
    for (int i = 0; i < 64; i++) g4_put(&b, &(uint8_t) { 1 }, 1);
    g4_put(&b, exif, sizeof exif);
    g4_put(&b, frame, sizeof frame);
    for (int scan = 0; scan <= progressive; scan++) {
        const uint8_t last = progressive ? (scan ? 63 : 0) : 63, first = (uint8_t)scan;
        const uint8_t head[] = { 0xff, 0xda, 0, 8, 1, 1, 0, first, last, 0 };
        g4_put(&b, head, sizeof head);
        g4_put_zeros(&b, blocks / (progressive ? 8 : 4) + 1);
    }
    g4_put(&b, "\xff\xd9", 2);
    return b;
}

static g4_bytes g4_wav(uint32_t frames, uint32_t rate)
{
    g4_bytes b = { 0 };
    g4_put_wav_head(&b, rate, 8 + frames * 4);
    g4_put_text(&b, "data");
    g4_put_le(&b, frames * 4, 4);
    g4_put_zeros(&b, (size_t)frames * 4);
    return b;
}

/* 24 bits a pixel, the rows of which end at multiples of 4 bytes. */
static g4_bytes g4_bmp(int w, int h)
{
    const size_t row = (3 * (size_t)w + 3) / 4 * 4;
    g4_bytes b = { 0 };
    g4_put_text(&b, "BM");
    g4_put_le(&b, 54 + row * (size_t)h, 4);
    g4_put_le(&b, 0, 4);
    g4_put_le(&b, 54, 4);
    g4_put_le(&b, 40, 4);
    g4_put_le(&b, (uint64_t)w, 4);
    g4_put_le(&b, (uint64_t)h, 4);
    g4_put_le(&b, 1 | 24 << 16, 4);
    g4_put_le(&b, 0, 24);
    g4_put_zeros(&b, row * (size_t)h);
    return b;
}

/* Runs of 32 bits a pixel. */
static g4_bytes g4_tga(int w, int h)
{
    g4_bytes b = { 0 };
    const uint8_t head[18] = {
        [2] = 10, [12] = (uint8_t)w, [13] = (uint8_t)(w >> 8), [14] = (uint8_t)h, [15] = (uint8_t)(h >> 8), [16] = 32
    };
    g4_put(&b, head, sizeof head);
    for (int i = 0; i < w * h; i += 128) g4_put(&b, "\xff\1\2\3\4", 5);
    return b;
}
/* Values of 7 bits, one a code, which begins anew before it would grow. */
static g4_bytes g4_gif(int w, int h)
{
    enum { PIECE = 255, CLEAR = 128, VALUES = 126 };
    g4_bytes b = { 0 };
    g4_put_text(&b, "GIF89a");
    for (int i = 0; i < 2; i++) { /* the canvas, and the frame on it; without palettes */
        if (i) g4_put(&b, "\0\0\0,\0\0\0", 8);
        g4_put_le(&b, (uint64_t)w, 2);
        g4_put_le(&b, (uint64_t)h, 2);
    }
    g4_put(&b, "\0\7", 2);
    for (int i = 0; i < w * h + w * h / VALUES; i++) {
        if (i % PIECE == 0) g4_put(&b, "\xff", 1);
        g4_put_le(&b, i % (VALUES + 1) == VALUES ? CLEAR : (uint64_t)i % CLEAR, 1);
    }
    for (int i = 0; i < PIECE; i++) g4_put(&b, "", 1);
    return b;
}
/* One picture of 24 bits a pixel, and its mask. */
static g4_bytes g4_ico(int w, int h)
{
    const size_t row = (3 * (size_t)w + 3) / 4 * 4, mask = ((size_t)w + 31) / 32 * 4;
    g4_bytes b = { 0 };
    g4_put_le(&b, 1 << 16, 4);
    g4_put_le(&b, 1, 2);
    g4_put_le(&b, 0, 8);
    g4_put_le(&b, 40 + (row + mask) * (size_t)h, 4);
    g4_put_le(&b, 22, 4);
    g4_put_le(&b, 40, 4);
    g4_put_le(&b, (uint64_t)w, 4);
    g4_put_le(&b, 2 * (uint64_t)h, 4);
    g4_put_le(&b, 1 | 24 << 16, 4);
    g4_put_le(&b, 0, 24);
    g4_put_zeros(&b, (row + mask) * (size_t)h);
    return b;
}

static void g4_put_be(g4_bytes *b, uint64_t v, int n)
{
    for (int i = 0; i < n; i++) g4_put(b, &(uint8_t) { (uint8_t)(v >> 8 * (n - 1 - i)) }, 1);
}
static void g4_put_box(g4_bytes *b, const char *name, size_t content)
{
    g4_put_be(b, 8 + content, 4);
    g4_put_text(b, name);
}

/* A HEIC of 40,000 empty properties, and 2,000 lists that each give the picture the last of them 255 times. */
static g4_bytes g4_heic_lists(void)
{
    enum { PROPERTIES = 40000, LISTS = 2000, LIST = 3 + 255 * 2 };
    const size_t ipco = 8 * PROPERTIES, ipma = 8 + (size_t)LISTS * LIST, iprp = 16 + ipco + ipma;
    g4_bytes b = { 0 };
    g4_put_box(&b, "ftyp", 8);
    g4_put(&b, "heic\0\0\0\0", 8);
    g4_put_box(&b, "meta", 4 + 14 + 8 + iprp);
    g4_put_be(&b, 0, 4);
    g4_put_box(&b, "pitm", 6);
    g4_put_be(&b, 1, 6);
    g4_put_box(&b, "iprp", iprp);
    g4_put_box(&b, "ipco", ipco);
    for (int i = 0; i < PROPERTIES; i++) g4_put_box(&b, "free", 0);
    g4_put_box(&b, "ipma", ipma);
    g4_put_be(&b, 1, 4); /* indices of 15 bits */
    g4_put_be(&b, LISTS, 4);
    for (int i = 0; i < LISTS; i++) {
        g4_put_be(&b, 1, 2);
        g4_put_be(&b, 255, 1);
        for (int k = 0; k < 255; k++) g4_put_be(&b, 32767, 2);
    }
    return b;
}

/* A file of empty boxes. */
static g4_bytes g4_heic_boxes(void)
{
    g4_bytes b = { 0 };
    g4_put_box(&b, "ftyp", 8);
    g4_put(&b, "heic\0\0\0\0", 8);
    for (int i = 0; i < 4000000; i++)
        g4_put(&b,
               "\0\0\0\x08"
               "free",
               8);
    return b;
}

static g4_bytes g4_y4m(int w, int h, int frames) { return g4_make_y4m(w, h, frames, g4_put_zeros); }

/* ---- Calls ------------------------------------------------------------------------------------ */

typedef union { /* whatever a call gives out */
    g4_image image;
    g4_audio audio;
    g4_video video;
    g4_patches patches;
    g4_media_info info;
} g4_made;

typedef struct {
    const char *name;
    const g4_bytes *in; /* bytes to decode; NULL: path */
    const char *path;
    const g4_image *image; /* to scale or to write */
    const char *ffmpeg;
    int seconds_at_most; /* of a call that never ends by itself; 0: it ends */
    int (*fn)(void *call, g4_made *made, const g4_media_options *opt, g4_error *err);
    double longest, longest_cpu; /* seconds, and those in which the call really ran: others may use the machine too */
} g4_stop_case;

static int g4_sink_bytes(void *user, const void *data, size_t n)
{
    (void)data;
    *(size_t *)user += n;
    return 0;
}

static int g4_stop_image(void *call, g4_made *made, const g4_media_options *opt, g4_error *err)
{
    const g4_stop_case *c = call;
    const g4_status s = c->in ? g4_image_decode(&made->image, c->in->data, c->in->n, opt, err)
                              : g4_image_load(&made->image, c->path, opt, err);
    if (!s) g4_image_free(&made->image, opt);
    return s;
}
static int g4_stop_audio(void *call, g4_made *made, const g4_media_options *opt, g4_error *err)
{
    const g4_stop_case *c = call;
    const g4_status s = c->in ? g4_audio_decode(&made->audio, c->in->data, c->in->n, opt, err)
                              : g4_audio_load(&made->audio, c->path, opt, err);
    if (!s) g4_audio_free(&made->audio, opt);
    return s;
}
static int g4_stop_video(void *call, g4_made *made, const g4_media_options *opt, g4_error *err)
{
    const g4_stop_case *c = call;
    g4_media_options more = *opt;
    more.n_frames = 1000;
    const g4_status s = c->in ? g4_video_decode(&made->video, c->in->data, c->in->n, &more, err)
                              : g4_video_load(&made->video, c->path, &more, err);
    if (!s) g4_video_free(&made->video, opt);
    return s;
}
static int g4_stop_patches(void *call, g4_made *made, const g4_media_options *opt, g4_error *err)
{
    const g4_status s = g4_patches_make(&made->patches, ((g4_stop_case *)call)->image, opt, err);
    if (!s) g4_patches_close(&made->patches, opt);
    return s;
}
static int g4_stop_write(void *call, g4_made *made, const g4_media_options *opt, g4_error *err)
{
    size_t n = 0;
    memset(made, 0, sizeof *made);
    return g4_png_write(((g4_stop_case *)call)->image, g4_sink_bytes, &n, opt, err);
}
static int g4_stop_probe(void *call, g4_made *made, const g4_media_options *opt, g4_error *err)
{
    const g4_stop_case *c = call;
    const g4_status s = c->in ? g4_media_probe_data(&made->info, c->in->data, c->in->n, opt, err)
                              : g4_media_probe(&made->info, c->path, opt, err);
    if (!s) memset(&made->info, 0, sizeof made->info);
    return s;
}

/* ---- Stopping them ---------------------------------------------------------------------------- */

typedef struct {
    g4_cancel cancel;
    double after, set_at, cpu_at;
} g4_stopper;

static void *g4_stop_later(void *user)
{
    g4_stopper *s = user;
    g4_sleep(s->after);
    s->set_at = g4_now();
    s->cpu_at = g4_cpu();
    g4_cancel_set(&s->cancel);
    return NULL;
}

static int g4_all_zero(const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++)
        if (b[i]) return 0;
    return 1;
}

/* One call with these limits, its memory counted or not: a counting allocator has no pages of zeros at hand, and much
 * of the time goes into making them. Returns its status, and when it returned. */
static g4_status g4_stop_call(g4_stop_case *c, const g4_limits *limits, int counted, double *returned, g4_error *err)
{
    g4_failing f = { 0, -1, 0 };
    const g4_allocator a = g4_failing_allocator(&f);
    const g4_media_options opt = { .allocator = counted ? &a : NULL,
                                   .ffmpeg = c->ffmpeg ? c->ffmpeg : "",
                                   .limits = *limits };
    g4_made made;
    memset(&made, 0, sizeof made);
    *err = (g4_error) { G4_OK, "" };
    const g4_status s = (g4_status)c->fn(c, &made, &opt, err);
    *returned = g4_now();
    G4_EXPECT(f.live == 0, "%s: %ld blocks are left", c->name, f.live);
    G4_EXPECT(g4_all_zero(&made, sizeof made), "%s: the output is not zero", c->name);
    return s;
}

static void g4_stop_judge(g4_stop_case *c, g4_status s, const g4_error *err, double late, const char *how)
{
    if (s == G4_OK && !c->seconds_at_most) return; /* it was faster this time */
    G4_EXPECT(s == G4_ERR_CANCELED && err->code == s && strstr(err->message, how), "%s: %s (%s)", c->name,
              g4_status_name(s), err->message);
    G4_EXPECT(late < G4_STOP_BOUND, "%s: returned %.0f ms late", c->name, 1e3 * late);
    if (late > c->longest) c->longest = late;
}

static void g4_stop_all(g4_stop_case *c)
{
    static const double cancels[] = { 0.02, 0.15, 0.4, 0.6, 0.9 }, deadlines[] = { 0.1, 0.35, 0.7 };
    g4_error err;
    double returned, whole = 0.2;
    if (!c->seconds_at_most) {
        const double start = g4_now();
        const g4_status s = g4_stop_call(c, &(g4_limits) { 0 }, 0, &returned, &err);
        G4_EXPECT(s == G4_OK, "%s: %s", c->name, err.message);
        if (s) return;
        whole = returned - start;
    }
    for (size_t i = 0; i < 2 * (sizeof cancels / sizeof *cancels); i++) {
        g4_stopper stopper = { .after = cancels[i / 2] * whole };
        pthread_t thread;
        if (pthread_create(&thread, NULL, g4_stop_later, &stopper)) exit(1);
        const g4_status s = g4_stop_call(c, &(g4_limits) { .cancel = &stopper.cancel }, i % 2 == 1, &returned, &err);
        const double cpu = g4_cpu();
        pthread_join(thread, NULL);
        g4_stop_judge(c, s, &err, returned - stopper.set_at, "cancelled");
        if (i % 2 == 0 && s && cpu - stopper.cpu_at > c->longest_cpu) c->longest_cpu = cpu - stopper.cpu_at;
    }
    for (size_t i = 0; i < sizeof deadlines / sizeof *deadlines; i++) {
        const double start = g4_now(), seconds = deadlines[i] * whole;
        const g4_status s = g4_stop_call(c, &(g4_limits) { .seconds = seconds }, 1, &returned, &err);
        g4_stop_judge(c, s, &err, returned - start - seconds, "seconds allowed");
    }
    g4_cancel set = { 0 };
    g4_cancel_set(&set);
    const double start = g4_now();
    const g4_status s = g4_stop_call(c, &(g4_limits) { .cancel = &set }, 1, &returned, &err);
    G4_EXPECT(s == G4_ERR_CANCELED, "%s with a flag that was set before: %s", c->name, g4_status_name(s));
    g4_stop_judge(c, s, &err, returned - start, "cancelled");
    G4_EXPECT(c->longest_cpu < G4_STOP_WORK, "%s: worked on for %.0f ms", c->name, 1e3 * c->longest_cpu);
    printf("%-34s %6.0f ms alone, stopped within %5.1f ms, %5.1f ms of them its own work\n", c->name, 1e3 * whole,
           1e3 * c->longest, 1e3 * c->longest_cpu);
}

static void g4_script(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    if (!f) exit(1);
    fputs(text, f);
    fclose(f);
    chmod(path, 0700);
}

/* A pipe into which nobody writes is waited for, but not for ever. */
static void *g4_wait_alone(void *user)
{
    const g4_media_options opt = { .ffmpeg = "" };
    g4_error err = { G4_OK, "" };
    g4_image image;
    (void)user;
    const double start = g4_now();
    const g4_status s = g4_image_load(&image, "build/stop_alone.fifo", &opt, &err);
    const double seconds = g4_now() - start;
    if (s != G4_ERR_IO || !strstr(err.message, "nobody has opened this pipe") || seconds < 9 || seconds > 60) {
        printf("a pipe that is left alone: %s after %.1f s\n", s ? err.message : "no failure", seconds);
        exit(1);
    }
    return NULL;
}

int main(void)
{
    const int w = 1600, h = 1200;
    g4_bytes pixels = { 0 }, png = { 0 }, ppm = { 0 }, plain = { 0 }, comment = { 0 }, wide = { 0 };
    g4_put_noise(&pixels, (size_t)w * (size_t)h * 3);
    const g4_image noise = { .pixels = pixels.data, .width = w, .height = h },
                   line = { .pixels = pixels.data, .width = w * h, .height = 1 },
                   column = { .pixels = pixels.data, .width = 2, .height = w * h / 2 };
    G4_EXPECT(!g4_png_write(&noise, g4_put, &png, NULL, NULL), "no PNG");
    g4_put_text(&ppm, "P6 4000 3000 255\n");
    g4_put_zeros(&ppm, (size_t)4000 * 3000 * 3);
    g4_put_text(&plain, "P1 4000 3000\n");
    for (int i = 0; i < 4000 * 3000; i++) g4_put(&plain, "0", 1);
    g4_put_text(&comment, "P5 #");
    for (int i = 0; i < 1000; i++) g4_put_zeros(&comment, 65536);
    g4_put_text(&comment, "\n1 1 255\nx");
    g4_put_text(&wide, "P4 20000000 1\n");
    g4_put_zeros(&wide, 2500000);
    g4_bytes sequential = g4_jpeg(4000, 3000, 0, 6), progressive = g4_jpeg(3000, 3000, 1, 1);
    g4_bytes wav = g4_wav(3 * 1000 * 1000, 44100), y4m = g4_y4m(800, 600, 30), high = g4_wav(767999, 767999);
    g4_bytes xbm = { 0 }, tga = g4_tga(4000, 3000), ico = g4_ico(4000, 3000), gif = g4_gif(4000, 3000);
    g4_put_text(&xbm, "#define x_width 4000\n#define x_height 3000\nstatic char x_bits[] = {");
    for (int i = 0; i < 4000 * 3000 / 8; i++) g4_put_text(&xbm, "0x5a,");
    g4_bytes bmp = g4_bmp(4000, 3000), lists = g4_heic_lists(), boxes = g4_heic_boxes();
    FILE *f = fopen("build/stop.y4m", "wb");
    if (!f || fwrite(y4m.data, 1, y4m.n, f) != y4m.n || fclose(f)) exit(1);
    g4_script("build/stop_silent.sh", "#!/bin/sh\nexec sleep 1000\n");
    g4_script("build/stop_endless.sh", "#!/bin/sh\nprintf 'P7\\n'\nexec yes '#'\n");
    g4_script("build/stop_wrapped.sh", "#!/bin/sh\ntrap '' TERM INT HUP PIPE\nexec sleep 1000\n");
    unlink("build/stop.fifo");
    unlink("build/stop_alone.fifo");
    G4_EXPECT(mkfifo("build/stop.fifo", 0600) == 0, "no named pipe");
    const char *foreign = "build/stop_foreign.xpm", *shows = "build/stop_shows.sh";
    g4_script(shows, "#!/bin/sh\nexec printf 'P6 1 1 255\\nabc'\n");
    G4_EXPECT(g4_save_foreign(foreign), "cannot write to build/");

    g4_stop_case cases[] = {
        { "PNG", &png, NULL, NULL, NULL, 0, g4_stop_image, 0, 0 },
        { "PNM", &ppm, NULL, NULL, NULL, 0, g4_stop_image, 0, 0 },
        { "PNM as text", &plain, NULL, NULL, NULL, 0, g4_stop_image, 0, 0 },
        { "PNM, a comment of 65 MB", &comment, NULL, NULL, NULL, 0, g4_stop_image, 0, 0 },
        { "PNM, one row of 20,000,000", &wide, NULL, NULL, NULL, 0, g4_stop_image, 0, 0 },
        { "JPEG, turned", &sequential, NULL, NULL, NULL, 0, g4_stop_image, 0, 0 },
        { "JPEG, progressive", &progressive, NULL, NULL, NULL, 0, g4_stop_image, 0, 0 },
        { "WAV, 44.1 kHz", &wav, NULL, NULL, NULL, 0, g4_stop_audio, 0, 0 },
        { "WAV, 767,999 Hz", &high, NULL, NULL, NULL, 0, g4_stop_audio, 0, 0 },
        { "GIF", &gif, NULL, NULL, NULL, 0, g4_stop_image, 0, 0 },
        { "BMP", &bmp, NULL, NULL, NULL, 0, g4_stop_image, 0, 0 },
        { "TGA", &tga, NULL, NULL, NULL, 0, g4_stop_image, 0, 0 },
        { "ICO", &ico, NULL, NULL, NULL, 0, g4_stop_image, 0, 0 },
        { "XBM", &xbm, NULL, NULL, NULL, 0, g4_stop_image, 0, 0 },
        { "HEIC, 510,000 properties", &lists, NULL, NULL, shows, 0, g4_stop_image, 0, 0 },
        { "HEIC, 4,000,000 boxes", &boxes, NULL, NULL, shows, 0, g4_stop_image, 0, 0 },
        { "y4m in memory", &y4m, NULL, NULL, NULL, 0, g4_stop_video, 0, 0 },
        { "y4m on disk", NULL, "build/stop.y4m", NULL, NULL, 0, g4_stop_video, 0, 0 },
        { "patches", NULL, NULL, &noise, NULL, 0, g4_stop_patches, 0, 0 },
        { "patches of one row", NULL, NULL, &line, NULL, 0, g4_stop_patches, 0, 0 },
        { "patches of two columns", NULL, NULL, &column, NULL, 0, g4_stop_patches, 0, 0 },
        { "writing PNG", NULL, NULL, &noise, NULL, 0, g4_stop_write, 0, 0 },
        { "PNG probed", &png, NULL, NULL, NULL, 0, g4_stop_probe, 0, 0 },
        { "a pipe nobody writes into", NULL, "build/stop.fifo", NULL, NULL, 1, g4_stop_image, 0, 0 },
        { "a program that is silent: picture", NULL, foreign, NULL, "build/stop_silent.sh", 1, g4_stop_image, 0, 0 },
        { "a program that is silent: sound", NULL, foreign, NULL, "build/stop_silent.sh", 1, g4_stop_audio, 0, 0 },
        { "a program that is silent: video", NULL, foreign, NULL, "build/stop_silent.sh", 1, g4_stop_video, 0, 0 },
        { "a program that never ends", NULL, foreign, NULL, "build/stop_endless.sh", 1, g4_stop_video, 0, 0 },
        { "a program that ignores signals", NULL, foreign, NULL, "build/stop_wrapped.sh", 1, g4_stop_video, 0, 0 },
    };
    pthread_t waiter;
    if (mkfifo("build/stop_alone.fifo", 0600) || pthread_create(&waiter, NULL, g4_wait_alone, NULL)) exit(1);
    double longest = 0, longest_cpu = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        g4_stop_all(&cases[i]);
        if (cases[i].longest > longest) longest = cases[i].longest;
        if (cases[i].longest_cpu > longest_cpu) longest_cpu = cases[i].longest_cpu;
    }
    printf("longest time to stop: %.1f ms, of own work %.1f ms\n", 1e3 * longest, 1e3 * longest_cpu);

    pthread_join(waiter, NULL);
    static const char *const made[] = { "build/stop_alone.fifo",  "build/stop_shows.sh",  "build/stop.y4m",
                                        "build/stop_foreign.xpm", "build/stop.fifo",      "build/stop_silent.sh",
                                        "build/stop_endless.sh",  "build/stop_wrapped.sh" };
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) unlink(made[i]);
    g4_bytes *all[] = { &pixels, &png,  &ppm, &plain, &comment, &wide, &sequential, &progressive, &wav,
                        &y4m,    &high, &bmp, &lists, &boxes,   &tga,  &ico,        &xbm,         &gif };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]->data);
    return g4_test_end();
}
