/* test_towers.c - the vision and audio towers against transformers on tiny random models: tests/data/media, made by
 * make_media_data.py. */
#include "towers.h"

#include "failing.h"
#include "chat/chat.h"

#define G4_MEL_TOLERANCE 1e-3 /* float32 noise of the reference itself: 6e-4 in quiet bins */
#define G4_ROW_TOLERANCE 5e-5

static g4_engine *g4_open(const char *path, int n_threads, const char *isa)
{
    g4_engine *e = NULL;
    g4_error err = { G4_OK, "" };
    g4_engine_open(&e, &(g4_engine_options) { .model_path = path, .n_threads = n_threads, .isa = isa }, &err);
    G4_EXPECT(e != NULL, "%s: %s", path, err.message);
    return e;
}

/* Root mean square of the difference, relative to that of the reference. */
static double g4_relative(const float *a, const float *b, size_t n)
{
    double d = 0, r = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        r += (double)b[i] * (double)b[i];
    }
    return sqrt(d / (r > 0 ? r : 1));
}

static uint32_t g4_fnv(const float *x, size_t n)
{
    uint32_t h = 2166136261u, word;
    for (size_t i = 0; i < n; i++) {
        memcpy(&word, x + i, 4);
        h = (h ^ word) * 16777619u;
    }
    return h;
}

/* Soft tokens against the rows kept of them; updates the largest difference and the largest relative error. */
static void g4_compare_rows(const g4_ref_file *f, const char *record, int a, int b, const g4_soft *soft,
                            const char *label, double tolerance, double *worst, double *error)
{
    char counts[64] = "n.";
    strcat(counts, record);
    g4_ref count = g4_ref_get(f, counts, a, b), r = g4_ref_get(f, record, a, b);
    const int32_t *want = count.data;
    G4_EXPECT(soft && want && g4_soft_n(soft) == want[0], "%s: %d tokens, expected %d", label, g4_soft_n(soft),
              want ? want[0] : -1);
    if (!soft || !want || g4_soft_n(soft) != want[0]) return;
    const size_t width = r.head.dims[1];
    double most = 0;
    for (size_t k = 0; k < r.head.dims[0]; k++) {
        const float *row = g4_soft_rows(soft) + k * (size_t)want[1] * width, *ref = (const float *)r.data + k * width;
        double d = g4_max_diff(row, ref, width);
        if (!(d <= most)) most = d;
        *error = fmax(*error, g4_relative(row, ref, width));
    }
    if (tolerance > 0) G4_EXPECT(most <= tolerance, "%s: off by %g", label, most);
    if (!(most <= *worst)) *worst = most;
}

/* tolerance 0: print the relative error of a quantised model instead of comparing. */
static void g4_test_pictures(g4_engine *e, const g4_ref_file *f, const char *name, double tolerance)
{
    g4_ref list = g4_ref_get(f, "pictures", 0, 0);
    double worst = 0, error = 0;
    for (int i = 0; i < (int)list.head.dims[0]; i++) {
        const int32_t *c = (const int32_t *)list.data + 3 * i;
        uint8_t *pixels = g4_picture(c[0], c[1], (uint32_t)i);
        g4_image image = { .pixels = pixels, .width = c[0], .height = c[1], .max_tokens = c[2] };
        g4_error err = { G4_OK, "" };
        if (tolerance > 0) {
            g4_ref r = g4_ref_get(f, "patches.%d", i, 0);
            const uint32_t *want = r.data;
            g4_patches p;
            g4_status s = g4_image_patches(NULL, &image, c[2], 16, 3, NULL, &p, &err);
            G4_EXPECT(s == G4_OK && (uint32_t)p.n == want[0] && (uint32_t)p.grid_w == want[1],
                      "%s picture %d: %d patches, %d across, expected %u, %u %s", name, i, p.n, p.grid_w, want[0],
                      want[1], err.message);
            if (s == G4_OK)
                G4_EXPECT(g4_fnv(p.pixels, (size_t)p.n * 768) == want[2], "%s picture %d: patches differ", name, i);
            if (s == G4_OK) g4_patches_free(NULL, &p);
        }
        g4_soft *soft = NULL;
        g4_image_encode(&soft, e, &image, &err);
        char label[128];
        snprintf(label, sizeof label, "%s picture %d (%d x %d, %d) %.30s", name, i, c[0], c[1], c[2], err.message);
        g4_compare_rows(f, "image.%d", i, 0, soft, label, tolerance, &worst, &error);
        g4_soft_close(e, soft);
        free(pixels);
    }
    printf("%s: %u pictures, largest difference %.2g, relative %.2g\n", name, list.head.dims[0], worst, error);
    if (tolerance <= 0) G4_EXPECT(error < 0.4, "%s: quantised tower off by %g", name, error);
}

static void g4_test_sounds(g4_engine *e, const g4_ref_file *f, const char *name, double tolerance)
{
    g4_ref list = g4_ref_get(f, "sounds", 0, 0);
    double worst_mel = 0, worst = 0, error = 0;
    for (int i = 0; i < (int)list.head.dims[0]; i++) {
        const int32_t *c = (const int32_t *)list.data + 2 * i;
        float *samples = g4_sound((size_t)c[0], c[1], (uint32_t)i);
        g4_audio sound = { .samples = samples, .n_samples = (size_t)c[0] };
        g4_ref cuts = g4_ref_get(f, "cuts.%d", i, 0);
        size_t at = 0, n;
        for (int b = 0; (n = g4_audio_block(&sound, at)) > 0; at += n, b++) {
            const int32_t *cut = cuts.data;
            G4_EXPECT(b + 1 < (int)cuts.n && at == (size_t)cut[b] && at + n == (size_t)cut[b + 1],
                      "%s sound %d: block %d is %zu to %zu", name, i, b, at, at + n);
            g4_audio block = { .samples = samples + at, .n_samples = n };
            g4_ref frames = g4_ref_get(f, "frames.%d.%d", i, b), mel = g4_ref_get(f, "mel.%d.%d", i, b);
            const int32_t *keep = frames.data;
            int n_frames = g4_audio_mel(&block, NULL);
            G4_EXPECT(frames.data && n_frames == keep[0], "%s sound %d: %d frames, expected %d", name, i, n_frames,
                      keep ? keep[0] : -1);
            float *out = malloc((size_t)n_frames * 128 * sizeof *out);
            g4_audio_mel(&block, out);
            for (size_t k = 1; k < frames.n && out; k++) {
                double d = g4_max_diff(out + (size_t)keep[k] * 128, (const float *)mel.data + (k - 1) * 128, 128);
                G4_EXPECT(d <= G4_MEL_TOLERANCE, "%s sound %d block %d frame %d: mel off by %g", name, i, b, keep[k],
                          d);
                if (!(d <= worst_mel)) worst_mel = d;
            }
            free(out);
            g4_soft *soft = NULL;
            g4_error err = { G4_OK, "" };
            g4_audio_encode(&soft, e, &block, &err);
            char label[128];
            snprintf(label, sizeof label, "%s sound %d block %d %.30s", name, i, b, err.message);
            g4_compare_rows(f, "audio.%d.%d", i, b, soft, label, tolerance, &worst, &error);
            g4_soft_close(e, soft);
        }
        G4_EXPECT(at == sound.n_samples, "%s sound %d: blocks end at %zu of %zu", name, i, at, sound.n_samples);
        free(samples);
    }
    if (list.data)
        printf("%s: %u sounds, largest difference of mel %.2g, of rows %.2g, relative %.2g\n", name, list.head.dims[0],
               worst_mel, worst, error);
    if (tolerance <= 0) G4_EXPECT(error < 0.4, "%s: quantised tower off by %g", name, error);
}

static void g4_test_model(const char *name, const char *ref, double tolerance)
{
    char path[128];
    snprintf(path, sizeof path, "tests/data/media/%s.ref", ref);
    g4_ref_file f = g4_ref_open(path);
    G4_EXPECT(f.bytes != NULL, "%s cannot be read", path);
    snprintf(path, sizeof path, "tests/data/media/%s.g4", name);
    g4_engine *e = g4_open(path, 0, NULL);
    if (e && f.bytes) {
        g4_test_pictures(e, &f, name, tolerance);
        g4_test_sounds(e, &f, name, tolerance);
    }
    g4_engine_close(e);
    free(f.bytes);
}

/* Fail every allocation of an encode in turn: an error, nothing lost, and the next encode works. */
static void g4_test_memory(void)
{
    g4_failing memory = { 0, -1, 0 };
    const g4_allocator allocator = g4_failing_allocator(&memory);
    g4_engine *e = NULL;
    g4_engine_open(
        &e, &(g4_engine_options) { .model_path = "tests/data/media/e2b.g4", .n_threads = 2, .allocator = &allocator },
        NULL);
    G4_EXPECT(e != NULL, "cannot be opened");
    uint8_t *pixels = g4_picture(60, 40, 5);
    float *samples = g4_sound(3000, G4_SPEECH, 5);
    const g4_image image = { .pixels = pixels, .width = 60, .height = 40, .max_tokens = 70 };
    const g4_audio sound = { .samples = samples, .n_samples = 3000 };
    for (int kind = 0; e && kind < 2; kind++) {
        const long before = memory.live;
        g4_soft *soft = NULL;
        g4_status status = G4_ERR_MEMORY;
        long n = 0;
        for (; status && n < 1000; n++) {
            memory.fail_at = memory.calls + n;
            status = kind == 0 ? g4_image_encode(&soft, e, &image, NULL) : g4_audio_encode(&soft, e, &sound, NULL);
            if (!status) break;
            G4_EXPECT(status == G4_ERR_MEMORY && !soft && memory.live == before,
                      "allocation %ld: status %d, %ld blocks more", n, status, memory.live - before);
        }
        memory.fail_at = -1;
        G4_EXPECT(soft && n > 10, "%ld allocations failed", n);
        g4_soft_close(e, soft);
    }
    g4_engine_close(e);
    G4_EXPECT(memory.live == 0, "%ld blocks are left", memory.live);
    free(pixels);
    free(samples);
}

/* Change each field of the towers' configuration, repair the checksum: refused in words, or read as a sound file. */
static void g4_test_damage(void)
{
    g4_ref_file f = g4_ref_open("tests/data/media/e2b.g4");
    uint8_t *file = f.bytes ? aligned_alloc(64, g4_round_up(f.size, 64)) : NULL;
    G4_EXPECT(file != NULL, "the file cannot be read");
    if (!file) return;
    memcpy(file, f.bytes, f.size);
    g4_file_header h;
    memcpy(&h, file, sizeof h);
    g4_config c;
    uint8_t *pixels = g4_picture(60, 40, 5);
    float *samples = g4_sound(3000, G4_SPEECH, 5);
    static const uint32_t values[] = { 0, 1, 2, 3, 16, 1000, 65535, 0x7fffffff, 0xffffffff };
    int refused = 0;
    for (size_t at = offsetof(g4_config, image_begin); at < offsetof(g4_config, reserved); at += 4) {
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            memcpy(&c, f.bytes + h.config_offset, sizeof c);
            memcpy((char *)&c + at, &values[v], 4);
            memcpy(file + h.config_offset, &c, sizeof c);
            const uint64_t sum = g4_checksum(file + 48, (size_t)h.data_offset - 48);
            memcpy(file + offsetof(g4_file_header, checksum), &sum, sizeof sum);
            g4_engine *e = NULL;
            g4_error err = { G4_OK, "" };
            if (g4_engine_open(&e, &(g4_engine_options) { .model_data = file, .model_size = f.size, .n_threads = 1 },
                               &err)) {
                refused++;
                G4_EXPECT(err.message[0] != 0 && !e, "field at %zu = %u: no message", at, values[v]);
                continue;
            }
            g4_soft *soft = NULL; /* whatever comes of it */
            g4_image_encode(&soft, e, &(g4_image) { .pixels = pixels, .width = 60, .height = 40, .max_tokens = 70 },
                            NULL);
            g4_soft_close(e, soft);
            soft = NULL;
            g4_audio_encode(&soft, e, &(g4_audio) { .samples = samples, .n_samples = 3000 }, NULL);
            g4_soft_close(e, soft);
            g4_engine_close(e);
        }
    }
    G4_EXPECT(refused > 100, "only %d changes were refused", refused);
    free(pixels);
    free(samples);
    free(file);
    free(f.bytes);
}

int main(void)
{
    g4_test_model("e2b", "e2b", G4_ROW_TOLERANCE);
    if (getenv("G4_RUNNER") == NULL) { /* on an emulated CPU only the one with both towers */
        g4_test_model("26b", "26b", G4_ROW_TOLERANCE);
        g4_test_model("e4b", "e4b", G4_ROW_TOLERANCE);
        g4_test_model("31b", "31b", G4_ROW_TOLERANCE);
        g4_test_model("e2b-q8_0", "e2b", 0);
    }
    g4_test_memory();
    g4_test_damage();
    return g4_test_end();
}
