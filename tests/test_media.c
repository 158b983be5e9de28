/* test_media.c - files to pixels, samples, frames and patches: tests/data/pictures.bin (make_pictures_data.py), sound
 * and video made here, damaged files, failing allocations, the fuzz corpora, and the ffmpeg program where there is one.
 */
#include "test.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bytes.h"
#include "failing.h"
#include "chat/chat.h"

/* The entries of the fuzzers, to replay their corpora. */
#define LLVMFuzzerTestOneInput g4_fuzz_png
#include "fuzz/fuzz_png.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput g4_fuzz_jpeg
#include "fuzz/fuzz_jpeg.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput g4_fuzz_pnm
#include "fuzz/fuzz_pnm.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput g4_fuzz_bmp
#include "fuzz/fuzz_bmp.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput g4_fuzz_small
#include "fuzz/fuzz_small.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput g4_fuzz_rare
#include "fuzz/fuzz_rare.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput g4_fuzz_webp
#include "fuzz/fuzz_webp.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput g4_fuzz_tiff
#include "fuzz/fuzz_tiff.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput g4_fuzz_heif
#include "fuzz/fuzz_heif.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput g4_fuzz_wav
#include "fuzz/fuzz_wav.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput g4_fuzz_y4m
#include "fuzz/fuzz_y4m.c"

#define G4_PI 3.14159265358979323846

/* ---- Helpers ---------------------------------------------------------------------------------- */

static int g4_read_all(const char *path, g4_bytes *b)
{
    char chunk[65536];
    size_t n;
    FILE *f = fopen(path, "rb");
    if (!f) return 0;
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0) g4_put(b, chunk, n);
    fclose(f);
    return 1;
}
static int g4_write_all(const char *path, const g4_bytes *b)
{
    FILE *f = fopen(path, "wb");
    if (!f) return 0;
    size_t n = fwrite(b->data, 1, b->n, f);
    return (fclose(f) == 0) & (n == b->n);
}

static uint32_t g4_sum_crc(uint32_t crc, const void *data, size_t n)
{
    static uint32_t table[256]; /* a test may have state */
    const uint8_t *p = data;
    for (uint32_t i = 0; table[1] == 0 || i < 256; i++) {
        uint32_t c = i & 255;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
        table[i & 255] = c;
    }
    crc = ~crc;
    for (size_t i = 0; i < n; i++) crc = table[(crc ^ p[i]) & 255] ^ crc >> 8;
    return ~crc;
}
static uint32_t g4_sum_adler(uint32_t sum, const void *data, size_t n)
{
    const uint8_t *p = data;
    uint32_t a = sum & 0xffff, b = sum >> 16;
    for (size_t i = 0; i < n; i++) {
        a = (a + p[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

/* No program is started, and a damaged header cannot ask for much. */
static g4_media_options g4_strict(void)
{
    return (g4_media_options) { .ffmpeg = "", .max_pixels = 1 << 20, .max_samples = 1 << 22 };
}

/* ---- Pictures and patches of the golden file ------------------------------------------------------ */

typedef struct {
    uint32_t kind, width, height, crc, adler, name_len, size;
    char name[64];
    const uint8_t *data;
} g4_record;

static int g4_next(g4_reader *r, g4_record *out)
{
    uint32_t *field = &out->kind;
    if (r->pos >= r->size) return 0;
    for (int i = 0; i < 7; i++) field[i] = g4_read_u32(r);
    const uint8_t *name = g4_read_bytes(r, out->name_len);
    out->data = g4_read_bytes(r, out->size);
    if (r->bad || out->name_len >= sizeof out->name) return 0;
    memcpy(out->name, name, out->name_len);
    out->name[out->name_len] = 0;
    return 1;
}

static void g4_check_picture(const g4_record *r)
{
    g4_media_options opt = g4_strict();
    if (r->kind == 3) opt.ffmpeg = NULL;
    g4_error err = { G4_OK, "" };
    g4_image img;
    g4_status s = g4_image_decode(&img, r->data, r->size, &opt, &err);
    G4_EXPECT(s == G4_OK, "%s: %s", r->name, err.message);
    if (s) return;
    size_t n = (size_t)img.width * (size_t)img.height * 3;
    G4_EXPECT(img.width == (int)r->width && img.height == (int)r->height, "%s: %d x %d, expected %u x %u", r->name,
              img.width, img.height, (unsigned)r->width, (unsigned)r->height);
    G4_EXPECT(g4_sum_crc(0, img.pixels, n) == r->crc && g4_sum_adler(1, img.pixels, n) == r->adler,
              "%s: other pixels than Pillow's", r->name);
    g4_image_free(&img, &opt);
}

/* The same picture as pattern() in make_pictures_data.py. */
static uint8_t *g4_pattern(int kind, int w, int h)
{
    uint8_t *p = malloc((size_t)w * (size_t)h * 3), *q = p;
    if (!p) exit(1);
    for (uint32_t y = 0; y < (uint32_t)h; y++) {
        for (uint32_t x = 0; x < (uint32_t)w; x++) {
            for (uint32_t c = 0; c < 3; c++) {
                uint32_t v = (x * 2654435761u) ^ (y * 2246822519u) ^ (c * 3266489917u);
                v ^= v >> 15;
                v *= 2246822519u;
                v ^= v >> 13;
                v = v >> 8 & 255;
                *q++ = (uint8_t)(kind == 2 ? (x * 5 + y * 3 + c * 40) >> 2 : kind == 1 ? (v > 127 ? 255 : 0) : v);
            }
        }
    }
    return p;
}

static void g4_check_patches(const g4_record *r)
{
    g4_reader d = { r->data, r->size, 0, 0 };
    int kind = (int)g4_read_u32(&d), budget = (int)g4_read_u32(&d), n = (int)g4_read_u32(&d), gw = (int)g4_read_u32(&d),
        gh = (int)g4_read_u32(&d);
    uint8_t *pixels = g4_pattern(kind, (int)r->width, (int)r->height);
    g4_image img = { .pixels = pixels, .width = (int)r->width, .height = (int)r->height };
    g4_patches p;
    g4_error err = { G4_OK, "" };
    g4_status s = g4_image_patches(NULL, &img, budget, 16, 3, NULL, &p, &err);
    G4_EXPECT(s == G4_OK, "%s: %s", r->name, err.message);
    if (!s) {
        int tw, th, tokens = g4_image_tokens(img.width, img.height, budget, &tw, &th);
        G4_EXPECT(p.n == n && p.grid_w == gw && p.grid_h == gh && p.n_tokens * 9 == n, "%s: %d patches, %d x %d",
                  r->name, p.n, p.grid_w, p.grid_h);
        G4_EXPECT(tokens == p.n_tokens && tw == 16 * gw && th == 16 * gh, "%s: g4_image_tokens gives %d, %d x %d",
                  r->name, tokens, tw, th);
        if (p.n == n) {
            G4_EXPECT(!memcmp(p.pixels + (size_t)(n / 2) * 768 + 380, r->data + 20, 32),
                      "%s: values in the middle differ", r->name);
            uint32_t crc = g4_sum_crc(0, p.pixels, (size_t)n * 768 * 4),
                     adler = g4_sum_adler(1, p.pixels, (size_t)n * 768 * 4);
            crc = g4_sum_crc(crc, p.pos, (size_t)n * 8);
            adler = g4_sum_adler(adler, p.pos, (size_t)n * 8);
            G4_EXPECT(crc == r->crc && adler == r->adler, "%s: other patches than the reference's", r->name);
        }
        g4_patches_free(NULL, &p);
    }
    free(pixels);
}

static void g4_test_patch_arguments(void)
{
    uint8_t px[12 * 2] = { 0 };
    g4_image img = { .pixels = px, .width = 2, .height = 2 };
    g4_patches p;
    g4_error err;
    for (int budget = -1; budget <= 1121; budget++) {
        int ok = budget == 0 || budget == 70 || budget == 140 || budget == 280 || budget == 560 || budget == 1120;
        g4_status s = g4_image_patches(NULL, &img, budget, 16, 3, NULL, &p, &err);
        if ((s == G4_OK) != ok || (!ok && s != G4_ERR_ARGUMENT))
            G4_EXPECT(0, "budget %d: %s", budget, g4_status_name(s));
        g4_patches_free(NULL, &p);
    }
    img.max_tokens = 70;
    G4_EXPECT(g4_image_patches(NULL, &img, 0, 16, 3, NULL, &p, &err) == G4_OK && p.n_tokens == 64,
              "max_tokens 70 of a square: %d tokens", p.n_tokens);
    g4_patches_free(NULL, &p);
    g4_image bad[] = {
        { .width = 2, .height = 2 },
        { .pixels = px, .height = 2 },
        { .pixels = px, .width = 2, .height = -1 },
        { .pixels = px, .width = 2, .height = 2, .stride = 5 },
        { .pixels = px, .width = 2, .height = 2, .max_tokens = 71 },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        G4_EXPECT(g4_image_patches(NULL, &bad[i], 0, 16, 3, NULL, &p, &err) == G4_ERR_ARGUMENT,
                  "bad picture %zu was accepted", i);
    /* a stride is a stride: the same patches from the middle of a wider picture */
    uint8_t *wide = g4_pattern(0, 100, 60), *tight = malloc(40 * 30 * 3);
    if (!tight) exit(1);
    for (size_t y = 0; y < 30; y++) memcpy(tight + y * 120, wide + (y + 7) * 300 + 33, 120);
    g4_image a = { .pixels = wide + 7 * 300 + 33, .width = 40, .height = 30, .stride = 300 },
             b = { .pixels = tight, .width = 40, .height = 30 };
    g4_patches pa, pb;
    G4_EXPECT(!g4_image_patches(NULL, &a, 70, 16, 3, NULL, &pa, &err) &&
                  !g4_image_patches(NULL, &b, 70, 16, 3, NULL, &pb, &err) && pa.n == pb.n &&
                  !memcmp(pa.pixels, pb.pixels, (size_t)pa.n * 768 * sizeof(float)),
              "stride changes the patches");
    g4_patches_free(NULL, &pa);
    g4_patches_free(NULL, &pb);
    free(wide);
    free(tight);
}

/* ---- PNG writer and boxes --------------------------------------------------------------------------- */

static void g4_test_png_writer(void)
{
    static const int sizes[][2] = { { 1, 1 }, { 1, 40 }, { 50, 1 }, { 17, 23 }, { 300, 200 } };
    g4_error err = { G4_OK, "" };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int kind = 0; kind < 3; kind++) {
            uint8_t *px = g4_pattern(kind, sizes[i][0], sizes[i][1]);
            g4_image img = { .pixels = px, .width = sizes[i][0], .height = sizes[i][1] }, back;
            g4_bytes out = { 0 };
            g4_status s = g4_png_write(&img, g4_put, &out, NULL, &err);
            if (!s) s = g4_image_decode(&back, out.data, out.n, NULL, &err);
            size_t n = (size_t)img.width * (size_t)img.height * 3;
            G4_EXPECT(!s && back.width == img.width && back.height == img.height && !memcmp(back.pixels, px, n),
                      "%d x %d, pattern %d: %s", img.width, img.height, kind, err.message);
            if (n > 100000 && kind == 2)
                G4_EXPECT(out.n < n / 20, "a smooth picture of %zu bytes became %zu", n, out.n);
            if (!s) g4_image_free(&back, NULL);
            free(out.data);
            free(px);
        }
    }
    uint8_t px[3] = { 0 };
    g4_image img = { .pixels = px, .width = 1, .height = 1 };
    G4_EXPECT(g4_png_write(&img, NULL, NULL, NULL, &err) == G4_ERR_ARGUMENT, "a NULL writer");
}

static void g4_test_boxes(void)
{
    enum { W = 120, H = 80 };
    static const int boxes[][4] = { { 10, 20, 60, 70 },    { -50, -50, 500, 500 },
                                    { 100, 60, 20, 10 },   { 119, 79, 120, 80 },
                                    { 5, 0, 5, 0 },        { -2147483647, -2147483647, 2147483647, 2147483647 },
                                    { 300, 300, 400, 400 } };
    const uint8_t red[3] = { 255, 0, 0 };
    uint8_t *px = malloc(W * H * 3 + 64); /* the bytes behind must stay */
    if (!px) exit(1);
    for (size_t i = 0; i < sizeof boxes / sizeof *boxes; i++) {
        memset(px, 9, W * H * 3 + 64);
        g4_draw_box(px, W, H, 0, boxes[i], i % 2 ? "Label 42% \xff~" : NULL, red);
        int intact = 1;
        for (int k = 0; k < 64; k++) intact &= px[W * H * 3 + k] == 9;
        G4_EXPECT(intact, "box %zu wrote behind the picture", i);
    }
    memset(px, 9, W * H * 3);
    g4_draw_box(px, W, H, 0, boxes[0], "A", red);
    const uint8_t *corner = px + (20 * W + 10) * 3, *outside = px + (19 * W + 30) * 3, *inside = px + (40 * W + 30) * 3,
                  *end = px + (69 * W + 59) * 3;
    G4_EXPECT(corner[0] == 255 && corner[1] == 0 && end[0] == 255 && end[1] == 0, "the frame is not there");
    G4_EXPECT(outside[0] == 9 && inside[0] == 9, "the frame is not a frame");
    G4_EXPECT(px[(13 * W + 13) * 3] != 9, "the label is not above the box");
    free(px);
}

/* ---- Sound --------------------------------------------------------------------------------------------- */

enum { G4_U8, G4_S16, G4_S24, G4_S32, G4_S64, G4_F32, G4_F64 };

/* A WAV file of `channels` channels, the c-th x scaled by gain[c]. */
static g4_bytes g4_wav(const double *x, size_t n, uint32_t rate, int coding, int channels, const double *gain,
                       int extensible)
{
    static const int bytes[] = { 1, 2, 3, 4, 8, 4, 8 };
    static const uint8_t guid[14] = { 0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71 };
    g4_bytes b = { 0 };
    uint32_t tag = coding >= G4_F32 ? 3 : 1, wide = (uint32_t)bytes[coding], frame = wide * (uint32_t)channels;
    uint64_t data = (uint64_t)n * frame;
    g4_put(&b, "RIFF", 4);
    g4_put_le(&b, 4 + 8 + (extensible ? 40u : 16u) + 12 + 8 + data, 4);
    g4_put(&b, "WAVEfmt ", 8);
    g4_put_le(&b, extensible ? 40 : 16, 4);
    g4_put_le(&b, extensible ? 0xfffe : tag, 2);
    g4_put_le(&b, (uint64_t)channels, 2);
    g4_put_le(&b, rate, 4);
    g4_put_le(&b, (uint64_t)rate * frame, 4);
    g4_put_le(&b, frame, 2);
    g4_put_le(&b, 8 * wide, 2);
    if (extensible) {
        g4_put_le(&b, 22, 2);
        g4_put_le(&b, 8 * wide, 2);
        g4_put_le(&b, 0, 4);
        g4_put_le(&b, tag, 2);
        g4_put(&b, guid, 14);
    }
    g4_put(&b, "odd \3\0\0\0abc\0data", 16); /* an odd chunk is padded */
    g4_put_le(&b, data, 4);
    for (size_t i = 0; i < n; i++) {
        for (int c = 0; c < channels; c++) {
            double v = x[i] * (gain ? gain[c] : 1);
            union {
                double d;
                float f;
                uint64_t u;
            } bits = { 0 };
            if (coding == G4_F64)
                bits.d = v;
            else if (coding == G4_F32)
                bits.f = (float)v;
            else if (coding == G4_U8)
                bits.u = (uint64_t)(int64_t)(rint(v * 127) + 128);
            else
                bits.u = (uint64_t)(int64_t)rint(v * (double)((UINT64_C(1) << (8 * wide - 1)) - 1));
            g4_put_le(&b, bits.u, (int)wide);
        }
    }
    return b;
}

static void g4_test_wav(void)
{
    static const double gain[3] = { 1, 0.5, -0.25 }, tolerance[7] = { 0.008, 4e-5, 2e-7, 1e-7, 1e-7, 1e-7, 1e-7 };
    double x[400];
    g4_error err = { G4_OK, "" };
    for (int i = 0; i < 400; i++) x[i] = 0.9 * sin(i * 0.37);
    for (int coding = G4_U8; coding <= G4_F64; coding++) {
        for (int extensible = 0; extensible < 2; extensible++) {
            g4_bytes b = g4_wav(x, 400, 16000, coding, 3, gain, extensible);
            g4_audio a;
            g4_status s = g4_audio_decode(&a, b.data, b.n, NULL, &err);
            G4_EXPECT(!s && a.n_samples == 400, "coding %d: %s", coding, s ? err.message : "other length");
            double worst = 0;
            for (size_t i = 0; !s && i < a.n_samples; i++)
                worst = fmax(worst, fabs((double)a.samples[i] - x[i] * 1.25 / 3));
            G4_EXPECT(worst < tolerance[coding], "coding %d is off by %g", coding, worst);
            g4_audio_free(&a, NULL);
            free(b.data);
        }
    }
}

/* 100 samples of 16 bits, whose values are 0, 100, 200 ...; what its chunk of data says of its length. */
static g4_bytes g4_wav_said(uint64_t said, const char *form, size_t behind)
{
    g4_bytes b = { 0 };
    const int is_long = form[1] == 'F' || form[1] == 'W';
    g4_put(&b, form, 4);
    g4_put_le(&b, 0, 4);
    g4_put_text(&b, "WAVE");
    if (is_long) {
        g4_put(&b, "ds64\x1c\0\0\0", 8);
        g4_put_le(&b, 0, 8);
        g4_put_le(&b, said, 8);
        g4_put_le(&b, 0, 12);
    }
    g4_put(&b, "fmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0", 24);
    g4_put(&b, "odd \3\0\0\0abc", 11); /* not padded */
    g4_put_text(&b, "data");
    g4_put_le(&b, is_long ? 0xffffffff : said, 4);
    for (uint64_t i = 0; i < 100; i++) g4_put_le(&b, 100 * i, 2);
    for (size_t i = 0; i < behind; i++) g4_put(&b, "x", 1);
    return b;
}

/* Lengths that were not known when they were written, or that the file does not have: the data end where it ends. */
static void g4_test_wav_lengths(void)
{
    static const struct {
        const char *form;
        uint64_t said;
        size_t behind, n;
    } cases[] = { { "RIFF", 200, 0, 100 },        { "RIFF", 0, 0, 100 },
                  { "RIFF", 0x7ffff000, 0, 100 }, { "RIFF", 0x7fffffff, 0, 100 },
                  { "RIFF", 0xffffffff, 0, 100 }, { "RIFF", 0x80000000, 1, 100 },
                  { "RIFF", 202, 1, 100 },        { "RIFF", 1000, 0, 100 },
                  { "RIFF", 100, 0, 50 },         { "RIFF", 200, 8, 100 },
                  { "RF64", 200, 8, 100 },        { "BW64", 200, 8, 100 },
                  { "RF64", 0, 0, 100 },          { "RF64", (uint64_t)1 << 40, 0, 100 } };
    const g4_media_options opt = g4_strict();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        g4_bytes b = g4_wav_said(cases[i].said, cases[i].form, cases[i].behind);
        g4_error err = { G4_OK, "" };
        g4_audio a;
        g4_media_info info;
        const g4_status s = g4_audio_decode(&a, b.data, b.n, &opt, &err);
        G4_EXPECT(!s && a.n_samples == cases[i].n &&
                      fabs((double)a.samples[a.n_samples - 1] - 100.0 * ((double)a.n_samples - 1) / 32768) < 1e-7,
                  "%s of %llu: %s, %zu samples", cases[i].form, (unsigned long long)cases[i].said, err.message,
                  a.n_samples);
        G4_EXPECT(!g4_media_probe_data(&info, b.data, b.n, &opt, &err) &&
                      fabs(info.seconds - (double)cases[i].n / 16000) < 1e-9,
                  "%s of %llu: %g s", cases[i].form, (unsigned long long)cases[i].said, info.seconds);
        g4_audio_free(&a, &opt);
        free(b.data);
    }
}

/* Numbers with their highest byte first, and the two laws of G.711. */
static void g4_test_wav_codings(void)
{
    static const uint8_t big[] = "RIFX\0\0\0\x2aWAVEfmt \0\0\0\x10\0\1\0\1\0\0\x3e\x80\0\0\xbb\x80\0\3\0\x18"
                                 "data\0\0\0\6\x40\0\0\xc0\0\1";
    static const uint8_t head[] =
        "RIFF\x2a\0\0\0WAVEfmt \x10\0\0\0\6\0\1\0\x80\x3e\0\0\x80\x3e\0\0\1\0\x08\0data\6\0\0\0";
    /* codes and values of ITU-T G.711, tables 1 and 2, scaled to 16 bits */
    static const uint8_t codes[2][6] = { { 0xd5, 0x55, 0x80, 0xaa, 0x2a, 0xc5 },
                                         { 0xff, 0x7f, 0x80, 0x00, 0xf0, 0xcd } };
    static const double values[2][6] = { { 8, -8, 5504, 32256, -32256, 264 }, { 0, 0, 32124, -32124, 120, 1052 } };
    const g4_media_options opt = g4_strict();
    g4_error err = { G4_OK, "" };
    g4_audio a;
    G4_EXPECT(!g4_audio_decode(&a, big, sizeof big - 1, &opt, &err) && a.n_samples == 2 && a.samples[0] == 0.5f &&
                  fabs((double)a.samples[1] + 0.5 - 1.0 / (1 << 23)) < 1e-12,
              "RIFX: %s", err.message);
    g4_audio_free(&a, &opt);
    for (int law = 0; law < 2; law++) {
        g4_bytes b = { 0 };
        g4_put(&b, head, sizeof head - 1);
        b.data[20] = (uint8_t)(6 + law);
        g4_put(&b, codes[law], 6);
        const g4_status s = g4_audio_decode(&a, b.data, b.n, &opt, &err);
        G4_EXPECT(!s && a.n_samples == 6, "law %d: %s", law, err.message);
        for (size_t i = 0; !s && i < a.n_samples; i++)
            G4_EXPECT((double)a.samples[i] * 32768 == values[law][i], "law %d, code %02x: %g, expected %g", law,
                      codes[law][i], (double)a.samples[i] * 32768, values[law][i]);
        g4_audio_free(&a, &opt);
        free(b.data);
    }
}

/* Rates that share no factor with 16 kHz, and rates beyond all usual ones: the cost is that of the samples. */
static void g4_test_wav_rates(void)
{
    static const uint32_t rates[] = { 1, 999, 767999, 768001, 15999989 };
    double *x = malloc(768000 * sizeof *x);
    if (!x) exit(1);
    for (int i = 0; i < 768000; i++) x[i] = 0.5;
    for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
        const size_t n = rates[i] == 1 ? 30 : rates[i] < 768000 ? rates[i] : 768000;
        const clock_t start = clock();
        g4_bytes b = g4_wav(x, n, rates[i], G4_F32, 1, NULL, 0);
        g4_media_options opt = { .ffmpeg = "" };
        g4_error err = { G4_OK, "" };
        g4_audio a;
        const g4_status s = g4_audio_decode(&a, b.data, b.n, &opt, &err);
        const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        G4_EXPECT(!s && a.n_samples == (n * UINT64_C(16000) + rates[i] - 1) / rates[i] &&
                      fabs((double)a.samples[a.n_samples / 2] - 0.5) < 1e-3,
                  "%u Hz: %s", (unsigned)rates[i], err.message);
        G4_EXPECT(seconds < 6, "%u Hz: %.2f s", (unsigned)rates[i], seconds);
        g4_audio_free(&a, &opt);
        free(b.data);
    }
    free(x);
}

/* Tones through the resampler: what is below 7.2 kHz (or 0.9 of a lower Nyquist frequency) survives, what is above 8
 * kHz vanishes. */
static void g4_test_resampler(void)
{
    static const uint32_t rates[] = {
        8000, 11025, 12000, 22050, 24000, 32000, 44100, 48000, 96000, 192000, 15999, 44101
    };
    static const double tones[] = { 50, 440, 997, 3000, 5000, 7000, 7200, 8100, 8500, 10000, 15000, 20000 };
    double worst_pass = 999, worst_stop = 999;
    for (size_t r = 0; r < sizeof rates / sizeof *rates; r++) {
        for (size_t t = 0; t < sizeof tones / sizeof *tones; t++) {
            double f = tones[t], nyquist = fmin(rates[r] / 2.0, 8000);
            int stop = f > 8000;
            if (f >= rates[r] / 2.0 || (!stop && f > 0.9 * nyquist)) continue;
            size_t n = rates[r] / 4;
            double *x = malloc(n * sizeof *x), signal = 0, error = 0;
            if (!x) exit(1);
            for (size_t i = 0; i < n; i++) x[i] = 0.5 * sin(2 * G4_PI * f * (double)i / rates[r]);
            g4_bytes b = g4_wav(x, n, rates[r], G4_F64, 1, NULL, 0);
            g4_audio a;
            g4_status s = g4_audio_decode(&a, b.data, b.n, NULL, NULL);
            G4_EXPECT(!s && a.n_samples == (n * 16000 + rates[r] - 1) / rates[r], "%u Hz: %zu samples",
                      (unsigned)rates[r], a.n_samples);
            for (size_t i = 600; !s && i + 600 < a.n_samples; i++) { /* the ends see the silence outside */
                double want = stop ? 0 : 0.5 * sin(2 * G4_PI * f * (double)i / 16000), d = (double)a.samples[i] - want;
                signal += 0.125;
                error += d * d;
            }
            double db = 10 * log10(signal / (error + 1e-30));
            if (stop)
                worst_stop = fmin(worst_stop, db);
            else
                worst_pass = fmin(worst_pass, db);
            g4_audio_free(&a, NULL);
            free(b.data);
            free(x);
        }
    }
    printf("resampler: signal to noise at least %.1f dB below 7.2 kHz, aliases at least %.1f dB down\n", worst_pass,
           worst_stop);
    G4_EXPECT(worst_pass > 95, "%.1f dB", worst_pass);
    G4_EXPECT(worst_stop > 95, "%.1f dB", worst_stop);
}

/* ---- Video ----------------------------------------------------------------------------------------------- */

/* n frames whose grey level is 16 + frame (so that it shows which one was taken), chroma neutral. */
static g4_bytes g4_y4m_file(int n, int w, int h, const char *header, size_t chroma_bytes)
{
    g4_bytes b = { 0 };
    g4_put(&b, header, strlen(header));
    for (int i = 0; i < n; i++) {
        g4_put(&b, i % 2 ? "FRAME Ip\n" : "FRAME\n", i % 2 ? 9 : 6);
        for (int k = 0; k < w * h; k++) g4_put(&b, &(uint8_t) { (uint8_t)(16 + i) }, 1);
        for (size_t k = 0; k < chroma_bytes; k++) g4_put(&b, &(uint8_t) { 128 }, 1);
    }
    return b;
}

static void g4_check_frames(const g4_video *v, int n, int total, double fps, const char *label)
{
    G4_EXPECT(v->n_frames == n, "%s: %d frames, expected %d", label, v->n_frames, n);
    for (int i = 0; i < v->n_frames && v->n_frames == n; i++) {
        int index = (int)((int64_t)i * total / n), want = (index * 76309 + 32768) >> 16;
        if (v->frames[i].pixels[0] != want || fabs(v->seconds[i] - index / fps) > 1e-9)
            G4_EXPECT(0, "%s: frame %d is of level %d at %g s, expected %d at %g s", label, i, v->frames[i].pixels[0],
                      v->seconds[i], want, index / fps);
    }
}

static void g4_test_y4m(void)
{
    g4_error err = { G4_OK, "" };
    g4_video v;
    g4_media_options opt = g4_strict();
    g4_bytes b = g4_y4m_file(100, 6, 4, "YUV4MPEG2 W6 H4 F25:1 Ip A1:1 C420jpeg\n", 12);
    G4_EXPECT(!g4_video_decode(&v, b.data, b.n, &opt, &err), "%s", err.message);
    g4_check_frames(&v, 32, 100, 25, "100 frames");
    g4_video_free(&v, &opt);
    opt.fps = 2; /* int(100 / 25 * 2) */
    G4_EXPECT(!g4_video_decode(&v, b.data, b.n, &opt, &err), "%s", err.message);
    g4_check_frames(&v, 8, 100, 25, "two a second");
    g4_video_free(&v, &opt);
    opt.fps = 0.01; /* at least one */
    G4_EXPECT(!g4_video_decode(&v, b.data, b.n, &opt, &err), "%s", err.message);
    g4_check_frames(&v, 1, 100, 25, "one in a hundred seconds");
    g4_video_free(&v, &opt);
    opt.fps = 0;
    opt.n_frames = 7;
    G4_EXPECT(!g4_video_decode(&v, b.data, b.n, &opt, &err), "%s", err.message);
    g4_check_frames(&v, 7, 100, 25, "seven frames");
    g4_video_free(&v, &opt);
    opt.n_frames = 1000;
    opt.max_frames = 50;
    G4_EXPECT(g4_video_decode(&v, b.data, b.n, &opt, &err) == G4_ERR_UNSUPPORTED && v.n_frames == 0 && !v.frames,
              "the limit of 50 frames");
    G4_EXPECT(g4_write_all("build/test_media.y4m", &b), "cannot write build/test_media.y4m");
    G4_EXPECT(!g4_video_load(&v, "build/test_media.y4m", NULL, &err), "%s", err.message);
    g4_check_frames(&v, 32, 100, 25, "from a file");
    g4_video_free(&v, NULL);
    remove("build/test_media.y4m");
    free(b.data);

    static const struct {
        const char *c;
        size_t chroma;
    } kinds[] = {
        { "C420mpeg2", 2 * 3 * 2 }, { "C422", 2 * 3 * 3 }, { "C444", 2 * 5 * 3 }, { "C411", 2 * 2 * 3 }, { "Cmono", 0 }
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char head[80];
        snprintf(head, sizeof head, "YUV4MPEG2 W5 H3 %s F30000:1001\n", kinds[i].c);
        b = g4_y4m_file(20, 5, 3, head, kinds[i].chroma);
        opt = g4_strict();
        G4_EXPECT(!g4_video_decode(&v, b.data, b.n, &opt, &err), "%s: %s", kinds[i].c, err.message);
        g4_check_frames(&v, 20, 20, 30000 / 1001.0, kinds[i].c); /* fewer than 32: all */
        g4_video_free(&v, &opt);
        for (size_t cut = 1; cut < b.n; cut++) { /* at the end of a frame what is left is a shorter video */
            if (!g4_video_decode(&v, b.data, cut, &opt, &err))
                g4_video_free(&v, &opt);
            else if (v.frames || err.message[0] == 0)
                G4_EXPECT(0, "%s cut at %zu: no clean failure", kinds[i].c, cut);
        }
        free(b.data);
    }
    b = g4_y4m_file(1, 2, 2, "YUV4MPEG2 W2 H2 C444\n", 8); /* colours against the formula in float64 */
    for (int k = 0; k < 12; k++) b.data[b.n - 12 + (size_t)k] = (uint8_t)(k * 53 + 20);
    opt = g4_strict();
    G4_EXPECT(!g4_video_decode(&v, b.data, b.n, &opt, &err) && v.n_frames == 1 && v.seconds[0] == 0, "%s", err.message);
    for (int k = 0; k < 4 && v.n_frames == 1; k++) {
        const uint8_t *yuv = b.data + b.n - 12 + k;
        double y = (yuv[0] - 16) * 255 / 219.0, cb = (yuv[4] - 128) * 255 / 224.0, cr = (yuv[8] - 128) * 255 / 224.0;
        double want[3] = { y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb };
        for (int c = 0; c < 3; c++) {
            double w = rint(fmin(255, fmax(0, want[c])));
            G4_EXPECT(v.frames[0].pixels[3 * k + c] == (int)w, "pixel %d channel %d: %d, expected %g", k, c,
                      v.frames[0].pixels[3 * k + c], want[c]);
        }
    }
    g4_video_free(&v, &opt);
    free(b.data);
}

/* ---- Damage ------------------------------------------------------------------------------------------------ */

/* Each kind of file through its reader; returns the status and frees what came out. */
static g4_status g4_decode_any(const uint8_t *data, size_t n, const g4_media_options *opt, g4_error *err)
{
    g4_status s;
    if (n >= 4 && !memcmp(data, "RIFF", 4) && (n < 12 || memcmp(data + 8, "WEBP", 4) != 0)) {
        g4_audio a;
        s = g4_audio_decode(&a, data, n, opt, err);
        g4_audio_free(&a, opt);
    } else if (n >= 4 && !memcmp(data, "YUV4", 4)) {
        g4_video v;
        s = g4_video_decode(&v, data, n, opt, err);
        g4_video_free(&v, opt);
    } else {
        g4_image img;
        s = g4_image_decode(&img, data, n, opt, err);
        g4_image_free(&img, opt);
    }
    return s;
}

/* The small files that the damage tests break. */
/* A picture whose pixels stand behind its file, and of which each sample may be off by r->crc: colours of ffmpeg's
 * planes are ours, and Pillow's are rounded otherwise. */
static void g4_check_near(const g4_record *r)
{
    const size_t n = (size_t)r->width * r->height * 3, file = r->size - n;
    const g4_media_options opt = { .max_program_seconds = 30 };
    g4_error err = { G4_OK, "" };
    g4_image img;
    g4_media_info info;
    G4_EXPECT(!g4_media_probe_data(&info, r->data, file, &opt, &err) && info.kind == G4_MEDIA_IMAGE &&
                  info.width == (int)r->width && info.height == (int)r->height,
              "%s: probed as %d x %d: %s", r->name, info.width, info.height, err.message);
    const g4_status s = g4_image_decode(&img, r->data, file, &opt, &err);
    G4_EXPECT(s == G4_OK, "%s: %s", r->name, err.message);
    if (s) return;
    const int fits = img.width == (int)r->width && img.height == (int)r->height;
    int worst = fits ? 0 : 255;
    for (size_t i = 0; fits && i < n; i++) {
        const int off = abs(img.pixels[i] - r->data[file + i]);
        if (off > worst) worst = off;
    }
    G4_EXPECT(worst <= (int)r->crc, "%s: %d x %d pixels, off by %d", r->name, img.width, img.height, worst);
    g4_image_free(&img, &opt);
}
static int g4_small(const g4_record *r)
{
    static const char *const names[] = { "png-3-4-1-trns.png",
                                         "png-6-8-0.png",
                                         "png-2-16-1.png",
                                         "jpeg-exif-6.jpg",
                                         "jpeg-sample-2x2-1.jpg",
                                         "jpeg-sample-2x1-2.jpg",
                                         "jpeg-ycck-2-1.jpg",
                                         "gif-3i.gif",
                                         "gif-part-5.gif",
                                         "webp-smooth-RGBA-6.webp",
                                         "webp-colours-3-RGB-4.webp",
                                         "vp8-RGB-3.webp",
                                         "vp8-RGB-6.webp",
                                         "vp8-RGBA-19.webp",
                                         "raw.ppm",
                                         "plain-6.ppm",
                                         "alpha.pam",
                                         "40-16-3-12-1.bmp",
                                         "runs-4-77.bmp",
                                         "tga-9-8-2.tga",
                                         "tga-2-32-1.tga",
                                         "tga-11-16-0.tga",
                                         "ico-4-1.ico",
                                         "ico-png.ico",
                                         "ico-largest.ico",
                                         "xbm-plain.xbm",
                                         "tiff-RGB-tiff_lzw.tif",
                                         "xz-rgb-delta.tif",
                                         "xz-runs-places.tif",
                                         "tiff-YCbCr-jpeg.tif",
                                         "tiff-rgb-le1-1-2.tif",
                                         "tiff-deep-be0-1-1.tif",
                                         "tiff-bits-4-1-2.tif",
                                         "fax-tiff_ccitt-0-0-67.tif",
                                         "dds-83.dds",
                                         "dds-41-16-7c00.dds",
                                         "sgi-3-2-1.sgi",
                                         "qoi-4.qoi",
                                         "pcx-RGB-11.pcx",
                                         "list.dcx",
                                         "cursor-1.cur" };
    for (size_t i = 0; r->kind == 1 && i < sizeof names / sizeof *names; i++) {
        if (!strcmp(names[i], r->name)) return 1;
    }
    return 0;
}

/* Has the start of a picture file all its pixels? */
static int g4_is_whole(const uint8_t *data, size_t n, size_t cut)
{
    const g4_media_options opt = g4_strict();
    g4_image whole, part;
    int same = 0;
    if (g4_image_decode(&whole, data, n, &opt, NULL)) return 0;
    if (!g4_image_decode(&part, data, cut, &opt, NULL)) {
        same = whole.width == part.width && whole.height == part.height &&
               !memcmp(whole.pixels, part.pixels, (size_t)whole.width * (size_t)whole.height * 3);
        g4_image_free(&part, &opt);
    }
    g4_image_free(&whole, &opt);
    return same;
}

static void g4_check_damage(const char *name, const uint8_t *data, size_t n)
{
    g4_media_options opt = g4_strict();
    /* text: the last number may lose a digit and still be one; sound that is cut is shorter */
    const int plain = strstr(name, "plain") != NULL, sound = strstr(name, "WAV") != NULL;
    for (size_t cut = 1; cut < n; cut++) {
        uint8_t *copy = malloc(cut); /* of exactly this size, for the sanitizers */
        if (!copy) exit(1);
        memcpy(copy, data, cut);
        g4_error err = { G4_OK, "" };
        g4_status s = g4_decode_any(copy, cut, &opt, &err);
        if (s == G4_OK ? !sound && !(plain && cut + 8 >= n) && !g4_is_whole(data, n, cut)
                       : err.code != s || !err.message[0])
            G4_EXPECT(0, "%s cut at %zu of %zu: %s", name, cut, n, g4_status_name(s));
        free(copy);
    }
    uint8_t *copy = malloc(n);
    if (!copy) exit(1);
    size_t step = n > 1500 ? n / 1500 + 1 : 1;
    for (size_t at = 0; at < n; at += at < 700 ? 1 : step) { /* headers whole, data in steps */
        static const uint8_t flips[] = { 0x01, 0x80, 0xff, 0x10 };
        for (size_t k = 0; k < sizeof flips; k++) {
            memcpy(copy, data, n);
            copy[at] ^= flips[k];
            g4_error err = { G4_OK, "" };
            g4_status s = g4_decode_any(copy, n, &opt, &err);
            if (s && !err.message[0]) G4_EXPECT(0, "%s, byte %zu changed: no message", name, at);
        }
    }
    free(copy);
    G4_EXPECT(1, "%s", name);
}

static void g4_check_allocations(const char *name, const uint8_t *data, size_t n)
{
    for (long at = 0;; at++) {
        g4_failing f = { 0, at, 0 };
        g4_allocator a = g4_failing_allocator(&f);
        g4_media_options opt = g4_strict();
        opt.allocator = &a;
        g4_error err = { G4_OK, "" };
        g4_status s = g4_decode_any(data, n, &opt, &err);
        if (f.live != 0 || (s && s != G4_ERR_MEMORY))
            G4_EXPECT(0, "%s, allocation %ld failed: %s, %ld blocks left", name, at, err.message, f.live);
        if (s == G4_OK) break; /* past the last one */
    }
    G4_EXPECT(1, "%s", name);
}

static void g4_put_chunk(g4_bytes *b, const char *name, const void *data, size_t n)
{
    g4_bytes c = { 0 };
    g4_put_text(&c, name);
    g4_put(&c, data, n);
    const uint32_t crc = g4_sum_crc(0, c.data, c.n);
    for (int i = 0; i < 4; i++) g4_put(b, &(uint8_t) { (uint8_t)(n >> (24 - 8 * i)) }, 1);
    g4_put(b, c.data, c.n);
    for (int i = 0; i < 4; i++) g4_put(b, &(uint8_t) { (uint8_t)(crc >> (24 - 8 * i)) }, 1);
    free(c.data);
}

/* One row of `width` grey pixels of 7, and a stream whose one match goes on behind it: its checksum is that of all that
 * it holds, or wrong. */
static g4_bytes g4_png_with_more(uint32_t width, int is_wrong)
{
    enum { UNPACKED = 2 + 258 };
    static const char bits[] = "1"             /* the last block, */
                               "10"            /* with the codes that every decoder knows: */
                               "00110000"      /* a byte of 0, for a row without a filter, */
                               "00110111"      /* a byte of 7, */
                               "1100010100000" /* 258 bytes like the last one, */
                               "0000000";      /* and the end */
    uint8_t head[13] = { 0, 0, (uint8_t)(width >> 8), (uint8_t)width, 0, 0, 0, 1, 8 }, unpacked[UNPACKED] = { 0 };
    uint8_t stream[2 + (sizeof bits + 6) / 8 + 4] = { 0x78, 0x9c };
    memset(unpacked + 1, 7, sizeof unpacked - 1);
    for (size_t i = 0; bits[i]; i++) stream[2 + i / 8] |= (uint8_t)((bits[i] - '0') << i % 8);
    const uint32_t adler = g4_sum_adler(1, unpacked, sizeof unpacked) + (uint32_t)is_wrong;
    for (size_t i = 0; i < 4; i++) stream[sizeof stream - 4 + i] = (uint8_t)(adler >> (24 - 8 * i));
    g4_bytes b = { 0 };
    g4_put(&b, "\x89PNG\r\n\x1a\n", 8);
    g4_put_chunk(&b, "IHDR", head, sizeof head);
    g4_put_chunk(&b, "IDAT", stream, sizeof stream);
    g4_put_chunk(&b, "IEND", "", 0);
    return b;
}

/* A match that ends before, at and behind the last pixel. What stands behind it is not asked for: only a stream of the
 * pixels alone has a checksum that can be wrong. */
static void g4_test_png_with_more(void)
{
    for (uint32_t width = 1; width <= 260; width++) {
        for (int is_wrong = 0; is_wrong < 2; is_wrong++) {
            g4_bytes png = g4_png_with_more(width, is_wrong);
            g4_media_options opt = g4_strict();
            g4_error err = { G4_OK, "" };
            g4_image img = { 0 };
            const int is_there = !g4_image_decode(&img, png.data, png.n, &opt, &err);
            const int is_right = width < 259 || (width == 259 && !is_wrong);
            if (is_there != is_right || (is_there && (img.pixels[0] != 7 || img.pixels[3 * width - 1] != 7)))
                G4_EXPECT(0, "%u pixels, checksum %s: %s", (unsigned)width, is_wrong ? "wrong" : "right", err.message);
            g4_image_free(&img, &opt);
            free(png.data);
        }
    }
    G4_EXPECT(1, "PNG with more data than pixels");
}

static void g4_test_allocations(void)
{
    uint8_t *px = g4_pattern(0, 30, 20);
    g4_image img = { .pixels = px, .width = 30, .height = 20 };
    for (long at = 0, done = 0; !done; at++) {
        g4_failing f = { 0, at, 0 };
        g4_allocator a = g4_failing_allocator(&f);
        g4_media_options opt = { .allocator = &a };
        g4_patches p;
        g4_bytes out = { 0 };
        g4_status s = g4_image_patches(&a, &img, 70, 16, 3, NULL, &p, NULL);
        G4_EXPECT(s == (at < f.calls ? G4_ERR_MEMORY : G4_OK), "patches: allocation %ld failed: %s", at,
                  g4_status_name(s));
        g4_patches_free(&a, &p);
        G4_EXPECT(f.live == 0, "patches: %ld blocks left", f.live);
        done = s == G4_OK;
        f = (g4_failing) { 0, at, 0 };
        s = g4_png_write(&img, g4_put, &out, &opt, NULL);
        G4_EXPECT(s == (at < f.calls ? G4_ERR_MEMORY : G4_OK) && f.live == 0,
                  "PNG: allocation %ld failed: %s, %ld blocks left", at, g4_status_name(s), f.live);
        done = done && s == G4_OK;
        free(out.data);
    }
    free(px);
}

/* The last scan of a progressive file, many times: few bytes, and much work. */
static void g4_test_scan_limit(const g4_record *r)
{
    size_t scan = r->size - 2, n;
    while (r->data[scan] != 0xff || r->data[scan + 1] != 0xda) scan--;
    g4_bytes file = { 0 };
    g4_put(&file, r->data, scan);
    for (int i = 0; i < 1000; i++) g4_put(&file, r->data + scan, r->size - 2 - scan);
    g4_put(&file, r->data + r->size - 2, 2);
    g4_media_options opt = g4_strict();
    g4_image img;
    g4_error err;
    n = (size_t)(r->width * r->height);
    G4_EXPECT(!g4_image_decode(&img, file.data, file.n, &opt, &err), "%s", err.message);
    g4_image_free(&img, &opt);
    opt.max_scan_blocks = n / 64 * 100;
    G4_EXPECT(g4_image_decode(&img, file.data, file.n, &opt, &err) == G4_ERR_UNSUPPORTED &&
                  strstr(err.message, "blocks in its scans"),
              "%s", err.message);
    free(file.data);
}

static void g4_test_limits(void)
{
    g4_error err;
    g4_image img;
    uint8_t *px = g4_pattern(2, 40, 30);
    g4_image src = { .pixels = px, .width = 40, .height = 30 };
    g4_bytes png = { 0 };
    g4_media_options opt = { .ffmpeg = "", .max_pixels = 1199 };
    G4_EXPECT(!g4_png_write(&src, g4_put, &png, NULL, &err), "%s", err.message);
    G4_EXPECT(g4_image_decode(&img, png.data, png.n, &opt, &err) == G4_ERR_UNSUPPORTED && strstr(err.message, "1199"),
              "%s", err.message);
    opt.max_pixels = 1200;
    G4_EXPECT(!g4_image_decode(&img, png.data, png.n, &opt, &err), "%s", err.message);
    g4_image_free(&img, &opt);

    /* bombs: a header that promises the limit with nothing behind it must fail before memory is taken */
    g4_failing f = { 0, -1, 0 };
    g4_allocator a = g4_failing_allocator(&f);
    static const uint8_t jpeg[] = {
        0xff, 0xd8, 0xff, 0xc0, 0, 11, 8, 0x1f, 0xff, 0x1f, 0xff, 1, 1, 0x11, 0, 0xff, 0xd9
    };
    opt = (g4_media_options) { .allocator = &a, .ffmpeg = "" };
    G4_EXPECT(g4_image_decode(&img, jpeg, sizeof jpeg, &opt, &err) == G4_ERR_FORMAT && f.calls <= 1,
              "%s, %ld allocations", err.message, f.calls);
    f.calls = 0;
    static const char ppm[] = "P6 8000 8000 255\nabc";
    G4_EXPECT(g4_image_decode(&img, ppm, sizeof ppm - 1, &opt, &err) == G4_ERR_FORMAT && f.calls == 0, "%s",
              err.message);
    g4_bytes bomb = { 0 };
    g4_put(&bomb, png.data, png.n);
    bomb.data[18] = bomb.data[22] = 0x1f; /* 8000 x 8000 */
    uint32_t crc = g4_sum_crc(0, bomb.data + 12, 17);
    for (int i = 0; i < 4; i++) bomb.data[29 + i] = (uint8_t)(crc >> (24 - 8 * i));
    G4_EXPECT(g4_image_decode(&img, bomb.data, bomb.n, &opt, &err) == G4_ERR_FORMAT && f.calls == 0,
              "%s, %ld allocations", err.message, f.calls);

    /* as many bytes as one bit a pixel may be packed into, and not as many as so many pixels should have */
    bomb.data[24] = 1;
    bomb.data[25] = 0;
    crc = g4_sum_crc(0, bomb.data + 12, 17);
    for (int i = 0; i < 4; i++) bomb.data[29 + i] = (uint8_t)(crc >> (24 - 8 * i));
    bomb.n = 33;
    uint8_t idat[9000] = { 0, 0, 0x23, 0x1c, 'I', 'D', 'A', 'T' }; /* 8988 */
    g4_put(&bomb, idat, sizeof idat);
    G4_EXPECT(g4_image_decode(&img, bomb.data, bomb.n, &opt, &err) == G4_ERR_UNSUPPORTED && f.calls == 0 &&
                  strstr(err.message, "256 a byte"),
              "%s, %ld allocations", err.message, f.calls);
    opt.max_pixels_per_byte = 10000;
    G4_EXPECT(g4_image_decode(&img, bomb.data, bomb.n, &opt, &err) == G4_ERR_FORMAT, "%s", err.message);
    opt.max_pixels_per_byte = 0;

    for (int kind = 12; kind <= 24; kind++) {
        char jp2[] = "\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14"
                     "ftypjp2 \0\0\0\0jp2 "
                     "\0\0\0\x2djp2h\0\0\0\x16ihdr\0\0\0\x80\0\0\0\x80\0\4\7\7\0\0\0\0\0\x0f"
                     "colr\1\0\0\0\0\0?";
        const int is_known = kind != 12 && kind != 18 && kind != 24;
        jp2[sizeof jp2 - 2] = (char)kind;
        G4_EXPECT(g4_image_decode(&img, jp2, sizeof jp2 - 1, &opt, &err) == G4_ERR_UNSUPPORTED &&
                      strstr(err.message, is_known ? "no ffmpeg program" : "JPEG 2000: colours of"),
                  "kind %d: %s", kind, err.message);
    }
    static const char xcode[] = "\x89PNG\r\n\x1a\n\0\0\0\4CgBI\x50\0\x20\6\x2b\xd5\xb3\x7f";
    G4_EXPECT(g4_image_decode(&img, xcode, sizeof xcode - 1, &opt, &err) == G4_ERR_UNSUPPORTED &&
                  strstr(err.message, "CgBI"),
              "%s", err.message);
    G4_EXPECT(g4_image_decode(&img, "not a picture at all", 20, &opt, &err) == G4_ERR_UNSUPPORTED, "%s", err.message);
    G4_EXPECT(g4_image_decode(&img, NULL, 0, &opt, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    G4_EXPECT(g4_image_load(&img, "tests/data/no-such-file.png", NULL, &err) == G4_ERR_IO &&
                  strstr(err.message, "no-such-file"),
              "%s", err.message);
    G4_EXPECT(g4_image_load(&img, "tests", NULL, &err) == G4_ERR_IO, "%s", err.message);
    opt = (g4_media_options) { .ffmpeg = "no-such-ffmpeg" };
    G4_EXPECT(g4_image_decode(&img, G4_FOREIGN, strlen(G4_FOREIGN), &opt, &err) == G4_ERR_UNSUPPORTED &&
                  strstr(err.message, "no-such-ffmpeg"),
              "%s", err.message);
    double x[200] = { 0 };
    g4_bytes wav = g4_wav(x, 200, 16000, G4_S16, 1, NULL, 0);
    g4_audio audio;
    opt = (g4_media_options) { .ffmpeg = "", .max_samples = 199 };
    G4_EXPECT(g4_audio_decode(&audio, wav.data, wav.n, &opt, &err) == G4_ERR_UNSUPPORTED && strstr(err.message, "199"),
              "%s", err.message);
    free(wav.data);
    wav = g4_wav(x, 200, 48000, G4_S16, 1, NULL, 0);
    opt = (g4_media_options) { .ffmpeg = "", .max_samples = UINT64_MAX / 3 + 1 }; /* times 48000 it wraps to little */
    G4_EXPECT(g4_audio_decode(&audio, wav.data, wav.n, &opt, &err) == G4_OK, "%s", err.message);
    g4_audio_free(&audio, &opt);
    free(wav.data);
    free(bomb.data);
    free(png.data);
    free(px);
}

/* ---- Corpora of the fuzzers ------------------------------------------------------------------------------------ */

static void g4_replay(const char *folder, int (*entry)(const uint8_t *, size_t))
{
    DIR *d = opendir(folder);
    G4_EXPECT(d != NULL, "%s is not there", folder);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        char path[512];
        g4_bytes b = { 0 };
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (g4_read_all(path, &b) && b.n > 0)
            n += entry(b.data, b.n) == 0; /* the entry traps when something is wrong */
        free(b.data);
    }
    if (d) closedir(d);
    G4_EXPECT(n > 0, "%s is empty", folder);
}

/* ---- The ffmpeg program --------------------------------------------------------------------------------------------
 */

/* A video whose frame i is shown at i^2 / 25 seconds, with frames that are decoded before earlier ones. */
static void g4_test_frame_times(void)
{
    static const char *const paths[] = { "build/test_times.mkv", "build/test_times.mp4" };
    const int rc =
        system("cd build && ffmpeg -v error -y -f lavfi -i testsrc=d=2:s=64x48:r=25 -vf 'settb=1/1000,setpts=N*N*40'"
               " -vsync passthrough -enc_time_base 1/1000 -c:v mpeg4 -bf 2 test_times.mkv &&"
               " ffmpeg -v error -y -i test_times.mkv -c copy test_times.mp4");
    if (rc != 0) {
        G4_SKIP("this ffmpeg cannot make a video of uneven times");
        return;
    }
    for (int k = 0; k < 4; k++) {
        const g4_media_options opt = { .frame_times = k % 2, .n_frames = 20 };
        g4_error err = { G4_OK, "" };
        g4_video v;
        const g4_status s = g4_video_load(&v, paths[k / 2], &opt, &err);
        G4_EXPECT(!s && v.n_frames == 20, "%s: %s", paths[k / 2], err.message);
        for (int i = 0; !s && i < v.n_frames; i++) {
            const int index = i * 50 / 20;
            const double want = k % 2 ? index * index * 0.04 : v.seconds[1] / 2 * index;
            if (fabs(v.seconds[i] - want) > 0.002)
                G4_EXPECT(0, "%s: frame %d at %g s, expected %g", paths[k / 2], index, v.seconds[i], want);
        }
        g4_video_free(&v, &opt);
    }
    remove(paths[0]);
    remove(paths[1]);
}

static void g4_test_ffmpeg(void)
{
    if (system("ffmpeg -version > /dev/null 2>&1") != 0) {
        G4_SKIP("no ffmpeg program");
        return;
    }
    g4_error err = { G4_OK, "" };
    g4_bytes y = g4_y4m_file(75, 32, 32, "YUV4MPEG2 W32 H32 F25:1 C420jpeg\n", 512), file = { 0 };
    double x[48000];
    for (int i = 0; i < 48000; i++) x[i] = 0.5 * sin(2 * G4_PI * 440 * i / 48000);
    static const double gain[2] = { 1, 0.5 };
    g4_bytes w = g4_wav(x, 48000, 48000, G4_S16, 2, gain, 0);
    G4_EXPECT(g4_write_all("build/test_media.y4m", &y) && g4_write_all("build/test_media.wav", &w),
              "cannot write to build/");
    int rc = system(
        "cd build && ffmpeg -v error -y -i test_media.y4m -i test_media.wav -c:v ffv1 -c:a flac test_media.mkv &&"
        " ffmpeg -v error -y -i test_media.wav test_media.flac && ffmpeg -v error -y -i test_media.y4m -frames:v 1 "
        "test_media.bmp");
    G4_EXPECT(rc == 0, "ffmpeg could not make the files: %d", rc);

    g4_video v;
    g4_media_options opt = { .want_sound = 1 };
    for (int from_memory = 0; from_memory < 2; from_memory++) {
        if (from_memory) g4_read_all("build/test_media.mkv", &file);
        g4_status s = from_memory ? g4_video_decode(&v, file.data, file.n, &opt, &err)
                                  : g4_video_load(&v, "build/test_media.mkv", &opt, &err);
        G4_EXPECT(!s && v.n_frames == 32 && v.sound && v.sound->n_samples == 16000, "%s", err.message);
        for (int i = 0; !s && i < v.n_frames; i++) {
            int index = i * 75 / 32, want = (index * 76309 + 32768) >> 16;
            if (abs(v.frames[i].pixels[0] - want) > 2 || fabs(v.seconds[i] - index / 25.0) > 1e-6)
                G4_EXPECT(0, "frame %d: level %d at %g s, expected %d at %g", i, v.frames[i].pixels[0], v.seconds[i],
                          want, index / 25.0);
        }
        g4_video_free(&v, &opt);
    }
    G4_EXPECT(g4_video_load(&v, "build/test_media.flac", &opt, &err) != G4_OK && !v.frames,
              "sound was taken for a video");
    G4_EXPECT(g4_video_load(&v, "tests/test_media.c", &opt, &err) != G4_OK && !v.frames,
              "this file was taken for a video");

    g4_audio a, b;
    g4_status s = g4_audio_load(&a, "build/test_media.flac", NULL, &err);
    G4_EXPECT(!s, "%s", err.message);
    G4_EXPECT(!g4_audio_load(&b, "build/test_media.wav", NULL, &err), "%s", err.message);
    G4_EXPECT(!s && a.n_samples == b.n_samples && !memcmp(a.samples, b.samples, a.n_samples * sizeof(float)),
              "FLAC and WAV of the same samples differ");
    g4_audio_free(&a, NULL);
    g4_audio_free(&b, NULL);

    g4_test_frame_times();
    g4_image img;
    G4_EXPECT(!g4_image_load(&img, "build/test_media.bmp", NULL, &err) && img.width == 32 && img.height == 32, "%s",
              err.message);
    g4_image_free(&img, NULL);
    opt = (g4_media_options) { .max_pixels = 1000 };
    G4_EXPECT(g4_image_load(&img, "build/test_media.bmp", &opt, &err) == G4_ERR_UNSUPPORTED, "%s", err.message);
    G4_EXPECT(g4_video_load(&v, "build/test_media.mkv", &opt, &err) == G4_ERR_UNSUPPORTED && !v.frames, "%s",
              err.message);
    opt = (g4_media_options) { .max_samples = 1000 };
    G4_EXPECT(g4_audio_load(&a, "build/test_media.flac", &opt, &err) == G4_ERR_UNSUPPORTED, "%s", err.message);
    for (long at = 0; at < 40; at++) {
        g4_failing f = { 0, at, 0 };
        g4_allocator al = g4_failing_allocator(&f);
        opt = (g4_media_options) { .allocator = &al, .want_sound = 1, .n_frames = 2 };
        s = g4_video_load(&v, "build/test_media.mkv", &opt, &err);
        G4_EXPECT(s == (at < f.calls ? G4_ERR_MEMORY : G4_OK), "allocation %ld of %ld failed: %s", at, f.calls,
                  s ? err.message : "no error");
        g4_video_free(&v, &opt);
        G4_EXPECT(f.live == 0, "allocation %ld: %ld blocks left", at, f.live);
        if (s == G4_OK) break;
    }
    static const char *const made[] = { "build/test_media.y4m", "build/test_media.wav", "build/test_media.mkv",
                                        "build/test_media.flac", "build/test_media.bmp" };
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) remove(made[i]);
    free(y.data);
    free(w.data);
    free(file.data);
}

int main(void)
{
    g4_bytes golden = { 0 };
    g4_record r;
    int n = 0;
    const int no_ffmpeg = system("ffmpeg -version > /dev/null 2>&1") != 0;
    G4_EXPECT(g4_read_all("tests/data/pictures.bin", &golden) && golden.n > 8 && !memcmp(golden.data, "G4PICS1\n", 8),
              "no tests/data/pictures.bin");
    g4_reader in = { golden.data, golden.n, 8, 0 };
    while (golden.n > 8 && g4_next(&in, &r)) {
        if (r.kind >= 3 && no_ffmpeg)
            G4_SKIP("no ffmpeg program");
        else if (r.kind == 4)
            g4_check_near(&r);
        else if (r.kind != 2)
            g4_check_picture(&r);
        else
            g4_check_patches(&r);
        if (!strcmp(r.name, "jpeg-0-1-92.jpg")) g4_test_scan_limit(&r);
        if (g4_small(&r)) {
            g4_check_damage(r.name, r.data, r.size);
            g4_check_allocations(r.name, r.data, r.size);
        }
        n++;
    }
    G4_EXPECT(n > 200 && in.pos == in.size, "tests/data/pictures.bin ends after %d records", n);
    free(golden.data);
    g4_test_patch_arguments();
    g4_test_png_writer();
    g4_test_png_with_more();
    g4_test_boxes();
    g4_test_wav();
    g4_test_wav_lengths();
    g4_test_wav_codings();
    g4_test_wav_rates();
    g4_test_resampler();
    g4_test_y4m();
    double x[60];
    for (int i = 0; i < 60; i++) x[i] = sin(i);
    g4_bytes wav = g4_wav(x, 60, 24000, G4_S24, 2, NULL, 1),
             y4m = g4_y4m_file(1, 6, 4, "YUV4MPEG2 W6 H4 F25:1 Ip A1:1 C422\n", 24);
    g4_check_damage("a WAV file", wav.data, wav.n);
    g4_check_allocations("a WAV file", wav.data, wav.n);
    g4_check_damage("a y4m file", y4m.data, y4m.n);
    g4_check_allocations("a y4m file", y4m.data, y4m.n);
    free(wav.data);
    free(y4m.data);
    g4_test_allocations();
    g4_test_limits();
    g4_test_ffmpeg();
    g4_replay("tests/fuzz/corpus_png", g4_fuzz_png);
    g4_replay("tests/fuzz/corpus_jpeg", g4_fuzz_jpeg);
    g4_replay("tests/fuzz/corpus_pnm", g4_fuzz_pnm);
    g4_replay("tests/fuzz/corpus_bmp", g4_fuzz_bmp);
    g4_replay("tests/fuzz/corpus_small", g4_fuzz_small);
    g4_replay("tests/fuzz/corpus_rare", g4_fuzz_rare);
    g4_replay("tests/fuzz/corpus_webp", g4_fuzz_webp);
    g4_replay("tests/fuzz/corpus_heif", g4_fuzz_heif);
    g4_replay("tests/fuzz/corpus_tiff", g4_fuzz_tiff);
    g4_replay("tests/fuzz/corpus_wav", g4_fuzz_wav);
    g4_replay("tests/fuzz/corpus_y4m", g4_fuzz_y4m);
    return g4_test_end();
}
