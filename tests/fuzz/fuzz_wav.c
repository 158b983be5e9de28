/* libFuzzer entry for the WAV reader, replayed by tests/test_media.c on tests/fuzz/corpus_wav. A success must have a
 * result, a failure a message; no program is started.
 *
 * Input that is not a WAV file describes one: its form, coding, channels, rate, the chunks before its samples, how long
 * it says they are, then the samples. The described file is written with the lowest byte of a number first and with the
 * highest: both must give the same bits, and as many as the file's length says. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gemma4.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define G4_FUZZ_WAV_HEAD 12 /* bytes of a description before the samples */

/* The samples of a file; NULL: refused. */
static float *g4_fuzz_wav_read(const uint8_t *data, size_t size, size_t *n)
{
    const g4_media_options opt = { .ffmpeg = "", .max_samples = 1 << 11 };
    g4_error err = { G4_OK, "" };
    g4_audio a;
    g4_media_info info;
    const g4_status s = g4_audio_decode(&a, data, size, &opt, &err);
    if (s && (err.code != s || err.message[0] == 0 || a.samples)) __builtin_trap();
    if (!s && (!a.samples || a.n_samples == 0)) __builtin_trap();
    if (!s && (g4_media_probe_data(&info, data, size, &opt, NULL) || info.kind != G4_MEDIA_AUDIO)) __builtin_trap();
    float *copy = s ? NULL : malloc(a.n_samples * sizeof *copy);
    if (copy) memcpy(copy, a.samples, a.n_samples * sizeof *copy);
    for (size_t i = 0; copy && i < a.n_samples; i++)
        if (!(copy[i] - copy[i] == 0)) __builtin_trap(); /* all are finite */
    *n = a.n_samples;
    g4_audio_free(&a, &opt);
    return copy;
}

typedef struct {
    uint8_t *out;
    size_t n;
    int is_big;
} g4_fuzz_wav_file;

static void g4_fuzz_text(g4_fuzz_wav_file *f, const char *text)
{
    memcpy(f->out + f->n, text, 4);
    f->n += 4;
}
static void g4_fuzz_number(g4_fuzz_wav_file *f, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) f->out[f->n++] = (uint8_t)(v >> 8 * (f->is_big ? bytes - 1 - i : i));
}

static const uint32_t g4_fuzz_rates[8] = { 16000, 16000, 16000, 16000, 16000, 8000, 48000, 24000 };

/* The described file in out, which has room for size + 200 bytes; *frame becomes the bytes of a sample of all channels.
 */
static size_t g4_fuzz_wav_write(uint8_t *out, const uint8_t *data, size_t size, int is_big, size_t *frame)
{
    static const uint8_t tags[8] = { 1, 1, 1, 3, 3, 6, 7, 2 };
    const uint32_t tag = tags[data[0] & 7], bytes = 1 + (data[1] & 7), channels = 1 + (data[2] & 3);
    const uint32_t rate = data[3] < 250 ? g4_fuzz_rates[data[3] & 7] : (uint32_t)data[4] << 16 | (uint32_t)data[5] << 8;
    const uint8_t *samples = data + G4_FUZZ_WAV_HEAD;
    const size_t n = size - G4_FUZZ_WAV_HEAD;
    g4_fuzz_wav_file f = { out, 0, is_big };
    g4_fuzz_text(&f, is_big ? "RIFX" : "RIFF");
    g4_fuzz_number(&f, data[6], 4);
    g4_fuzz_text(&f, "WAVE");
    for (int i = data[7] & 3; i > 0; i--) {
        const size_t odd = data[7] >> 2 & 15;
        g4_fuzz_text(&f, "odd ");
        g4_fuzz_number(&f, odd, 4);
        for (size_t k = 0; k < odd + odd % 2; k++) f.out[f.n++] = data[8];
    }
    g4_fuzz_text(&f, "fmt ");
    g4_fuzz_number(&f, 16, 4);
    g4_fuzz_number(&f, tag, 2);
    g4_fuzz_number(&f, channels, 2);
    g4_fuzz_number(&f, rate, 4);
    g4_fuzz_number(&f, (uint64_t)rate * bytes * channels, 4);
    g4_fuzz_number(&f, bytes * channels, 2);
    g4_fuzz_number(&f, data[9] < 200 ? 8 * bytes : data[9] - 200u, 2);
    g4_fuzz_text(&f, "data");
    const uint64_t said[8] = { n, n, 0, 0x7ffff000, 0xffffffff, n + 1 + data[11], data[11], n };
    g4_fuzz_number(&f, said[data[10] & 7], 4);
    memcpy(f.out + f.n, samples, n);
    for (size_t at = 0; is_big && at + bytes <= n; at += bytes) /* the bytes of each number in the other order */
        for (size_t i = 0; i < bytes; i++) f.out[f.n + at + i] = samples[at + bytes - 1 - i];
    *frame = (size_t)bytes * channels;
    return f.n + n;
}

static void g4_fuzz_wav_described(const uint8_t *data, size_t size)
{
    float *found[2];
    size_t n[2], frame = 1;
    for (int is_big = 0; is_big < 2; is_big++) {
        uint8_t *file = malloc(size + 200);
        if (!file) exit(1);
        const size_t bytes = g4_fuzz_wav_write(file, data, size, is_big, &frame);
        uint8_t *exact = realloc(file, bytes); /* so that the sanitizer sees every byte too many */
        found[is_big] = g4_fuzz_wav_read(exact ? exact : file, bytes, &n[is_big]);
        free(exact ? exact : file);
    }
    if (!found[0] != !found[1]) __builtin_trap();
    if (found[0] && (n[0] != n[1] || memcmp(found[0], found[1], n[0] * sizeof **found) != 0)) __builtin_trap();
    if (found[0] && (data[10] & 7) < 6 && data[3] < 250) { /* all samples that are there */
        const uint64_t rate = g4_fuzz_rates[data[3] & 7], whole = (size - G4_FUZZ_WAV_HEAD) / frame;
        if (n[0] != (whole * 16000 + rate - 1) / rate) __builtin_trap();
    }
    free(found[0]);
    free(found[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t n;
    if (size >= 12 && memcmp(data + 8, "WAVE", 4) == 0)
        free(g4_fuzz_wav_read(data, size, &n));
    else if (size > G4_FUZZ_WAV_HEAD)
        g4_fuzz_wav_described(data, size);
    return 0;
}
