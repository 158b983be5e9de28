/* libFuzzer entry for the JPEG reader, replayed by tests/test_media.c on tests/fuzz/corpus_jpeg. No program is started.
 *
 * Input that is not a JPEG file describes one, so that a change of a byte is a change of meaning: what kind it is, its
 * size and components, tables of any valid shape, scans of any components and bits, restart markers, and the coded
 * data, whose bytes are taken as they are. What is left of the description after that stands behind the picture. */
#include <stdlib.h>

#include "picture_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    const uint8_t *p, *end; /* what is left of the description */
    uint8_t *out;
    size_t n, cap;
} g4_fuzz_jpeg_file;

/* The next byte of the description, below `limit`; 0 behind its end. */
static uint32_t g4_fuzz_take(g4_fuzz_jpeg_file *f, uint32_t limit) { return f->p < f->end ? *f->p++ % limit : 0; }

static void g4_fuzz_put(g4_fuzz_jpeg_file *f, uint32_t byte)
{
    if (f->n < f->cap) f->out[f->n++] = (uint8_t)byte;
}

/* A marker with a length, which is filled in by the call that ends the segment. */
static size_t g4_fuzz_begin(g4_fuzz_jpeg_file *f, uint32_t marker)
{
    g4_fuzz_put(f, 0xff);
    g4_fuzz_put(f, marker);
    const size_t at = f->n;
    g4_fuzz_put(f, 0);
    g4_fuzz_put(f, 0);
    return at;
}
static void g4_fuzz_end(g4_fuzz_jpeg_file *f, size_t at)
{
    if (f->n < at + 2) return;
    f->out[at] = (uint8_t)((f->n - at) >> 8);
    f->out[at + 1] = (uint8_t)(f->n - at);
}

/* Quantisers: of 8 or 16 bits, all the same or rising. */
static void g4_fuzz_quantisers(g4_fuzz_jpeg_file *f, uint32_t id)
{
    const uint32_t first = g4_fuzz_take(f, 256), step = g4_fuzz_take(f, 256), is_wide = g4_fuzz_take(f, 8) == 7;
    const size_t at = g4_fuzz_begin(f, 0xdb);
    g4_fuzz_put(f, is_wide << 4 | id);
    for (uint32_t i = 0; i < 64; i++) {
        if (is_wide) g4_fuzz_put(f, i * step >> 4);
        g4_fuzz_put(f, first + (i * step >> 4));
    }
    g4_fuzz_end(f, at);
}

/* A code with as many words of each length as the description says, as far as they fit, and their symbols. */
static void g4_fuzz_code(g4_fuzz_jpeg_file *f, uint32_t is_ac, uint32_t id)
{
    const size_t at = g4_fuzz_begin(f, 0xc4);
    uint32_t counts[16], left = 1, total = 0;
    g4_fuzz_put(f, is_ac << 4 | id);
    for (int i = 0; i < 16; i++) {
        left *= 2;
        counts[i] = g4_fuzz_take(f, 256);
        if (counts[i] > left) counts[i] = left;
        if (counts[i] > 256 - total) counts[i] = 256 - total;
        left -= counts[i];
        total += counts[i];
        g4_fuzz_put(f, counts[i]);
    }
    for (uint32_t i = 0; i < total; i++) {
        const uint32_t said = g4_fuzz_take(f, 256);
        g4_fuzz_put(f, is_ac ? said : said % 17); /* DC: bits of a difference */
    }
    g4_fuzz_end(f, at);
}

static void g4_fuzz_frame(g4_fuzz_jpeg_file *f, uint32_t n_components)
{
    static const uint8_t kinds[] = { 0xc0, 0xc1, 0xc2, 0xc2, 0xc0, 0xc3, 0xc9, 0xc2 };
    const uint32_t kind = kinds[g4_fuzz_take(f, 8)];
    const size_t at = g4_fuzz_begin(f, kind);
    g4_fuzz_put(f, g4_fuzz_take(f, 64) == 63 ? 12 : 8);
    for (int i = 0; i < 2; i++) { /* height, width */
        const uint32_t size = g4_fuzz_take(f, 128) + 1;
        g4_fuzz_put(f, 0);
        g4_fuzz_put(f, size);
    }
    g4_fuzz_put(f, n_components);
    for (uint32_t i = 0; i < n_components; i++) {
        const uint32_t shape = g4_fuzz_take(f, 256);
        g4_fuzz_put(f, i + 1);
        g4_fuzz_put(f, shape < 200 ? ((shape & 1) + 1) << 4 | ((shape >> 1 & 1) + 1)
                                   : ((shape & 3) + 1) << 4 | ((shape >> 2 & 3) + 1));
        g4_fuzz_put(f, shape >> 4 & 1);
    }
    g4_fuzz_end(f, at);
}

/* The components of a mask, the band and the bits; then coded bytes, in which a byte of 255 is escaped or begins a
 * marker. */
static void g4_fuzz_scan(g4_fuzz_jpeg_file *f, uint32_t n_components)
{
    const uint32_t mask = g4_fuzz_take(f, 256), band = g4_fuzz_take(f, 256), bits = g4_fuzz_take(f, 256);
    const uint32_t length = g4_fuzz_take(f, 256) * (mask >> 7 ? 16 : 1);
    uint32_t n = 0;
    const size_t at = g4_fuzz_begin(f, 0xda), count = f->n;
    g4_fuzz_put(f, 0);
    for (uint32_t i = 0; i < n_components; i++) {
        if ((mask >> i & 1) == 0 && mask % 16 != 0) continue; /* 0: all of them */
        g4_fuzz_put(f, i + 1);
        g4_fuzz_put(f, (mask >> 4 & 1) << 4 | (mask >> 5 & 1));
        n++;
    }
    if (count < f->n) f->out[count] = (uint8_t)n;
    const uint32_t first = band < 64 ? 0 : band & 63;
    g4_fuzz_put(f, first);
    g4_fuzz_put(f, band < 64 ? (band & 1 ? 63 : 0) : band < 128 ? 63 : first + (band >> 6));
    g4_fuzz_put(f, bits < 128 ? bits & 3 : bits);
    g4_fuzz_end(f, at);
    for (uint32_t i = 0; i < length && f->p < f->end; i++) {
        const uint32_t byte = g4_fuzz_take(f, 256);
        g4_fuzz_put(f, byte);
        if (byte != 255) continue;
        const uint32_t marker = g4_fuzz_take(f, 256);
        g4_fuzz_put(f, marker < 128 ? 0 : 0xd0 | (marker & 7));
    }
}

static void g4_fuzz_file(g4_fuzz_jpeg_file *f)
{
    const uint32_t what = g4_fuzz_take(f, 256), n_components = 1 + (what & 3);
    g4_fuzz_put(f, 0xff);
    g4_fuzz_put(f, 0xd8);
    if (what & 4) { /* Adobe's segment with its transform */
        const size_t at = g4_fuzz_begin(f, 0xee);
        for (const char *c = "Adobe"; *c; c++) g4_fuzz_put(f, (uint8_t)*c);
        for (int i = 0; i < 6; i++) g4_fuzz_put(f, 0);
        g4_fuzz_put(f, g4_fuzz_take(f, 4));
        g4_fuzz_end(f, at);
    }
    if (what & 8) { /* an interval of restarts */
        const size_t at = g4_fuzz_begin(f, 0xdd);
        g4_fuzz_put(f, 0);
        g4_fuzz_put(f, g4_fuzz_take(f, 16));
        g4_fuzz_end(f, at);
    }
    if (what & 16) { /* EXIF with an orientation */
        static const uint8_t exif[] = "Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0";
        const size_t at = g4_fuzz_begin(f, 0xe1);
        for (size_t i = 0; i + 1 < sizeof exif; i++) g4_fuzz_put(f, exif[i]);
        g4_fuzz_put(f, g4_fuzz_take(f, 10));
        for (int i = 0; i < 7; i++) g4_fuzz_put(f, 0);
        g4_fuzz_end(f, at);
    }
    g4_fuzz_quantisers(f, 0);
    if (what & 32) g4_fuzz_quantisers(f, 1);
    if (what & 64) /* else the standard's hold */
        for (uint32_t i = 0; i < 4; i++) g4_fuzz_code(f, i & 1, i >> 1);
    g4_fuzz_frame(f, n_components);
    for (uint32_t scans = 1 + g4_fuzz_take(f, 12); scans > 0 && f->p < f->end; scans--) {
        if (g4_fuzz_take(f, 32) == 31) g4_fuzz_code(f, g4_fuzz_take(f, 2), g4_fuzz_take(f, 2));
        g4_fuzz_scan(f, n_components);
    }
    if (what & 128) {
        g4_fuzz_put(f, 0xff);
        g4_fuzz_put(f, 0xd9);
    }
    while (f->p < f->end) g4_fuzz_put(f, g4_fuzz_take(f, 256));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 2 && data[0] == 0xff && data[1] == 0xd8) {
        g4_fuzz_picture(data, size, "\xff\xd8\xff");
        return 0;
    }
    g4_fuzz_jpeg_file f = { data, data + size, NULL, 0, 2 * size + 4096 };
    f.out = malloc(f.cap);
    if (!f.out) return 0;
    g4_fuzz_file(&f);
    uint8_t *exact = realloc(f.out, f.n); /* so that the sanitizer sees every byte too many */
    if (exact) f.out = exact;
    g4_fuzz_picture(f.out, f.n, "\xff\xd8\xff");
    free(f.out);
    return 0;
}
