/* towers.h - what the tests of pictures and sound share: the .ref files of make_media_data.py, and its pictures and
 * sounds. */
#ifndef G4_TEST_TOWERS_H
#define G4_TEST_TOWERS_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gemma4.h"
#include "test.h"

/* One record of a .ref file; see write_ref in make_media_data.py. */
typedef struct {
    char name[32];
    uint32_t is_int, n_dims, dims[4];
} g4_ref_head;
typedef struct {
    g4_ref_head head;
    const void *data; /* float or int32_t */
    size_t n;         /* values */
} g4_ref;
typedef struct {
    char *bytes;
    size_t size;
} g4_ref_file;

static g4_ref_file g4_ref_open(const char *path)
{
    g4_ref_file f = { NULL, 0 };
    FILE *in = fopen(path, "rb");
    if (!in) return f;
    if (fseek(in, 0, SEEK_END) == 0) {
        long size = ftell(in);
        rewind(in);
        if (size > 0 && (f.bytes = malloc((size_t)size)) != NULL) f.size = fread(f.bytes, 1, (size_t)size, in);
    }
    fclose(in);
    return f;
}

/* The record of that name; data is NULL when there is none. */
static g4_ref g4_ref_get(const g4_ref_file *f, const char *fmt, int a, int b)
{
    char name[64];
    snprintf(name, sizeof name, fmt, a, b);
    g4_ref r;
    for (size_t at = 0; at + sizeof r.head <= f->size;) {
        memcpy(&r.head, f->bytes + at, sizeof r.head);
        r.n = (size_t)r.head.dims[0] * r.head.dims[1] * r.head.dims[2] * r.head.dims[3];
        r.data = f->bytes + at + sizeof r.head;
        if (strncmp(r.head.name, name, sizeof r.head.name) == 0) return r;
        at += sizeof r.head + 4 * r.n;
    }
    memset(&r, 0, sizeof r);
    return r;
}

/* noise, picture and sound as in make_media_data.py, value for value. */
static uint32_t g4_noise(uint64_t i, uint32_t seed)
{
    uint32_t x = (uint32_t)(i * 2654435761u + seed * 40503u + 12345u);
    x ^= x >> 15;
    x *= 2246822519u;
    return x ^ x >> 13;
}

static uint8_t *g4_picture(int width, int height, uint32_t seed)
{
    uint8_t *p = malloc(3 * (size_t)width * (size_t)height), *at = p;
    if (!p) return NULL;
    for (int64_t y = 0; y < height; y++) {
        for (int64_t x = 0; x < width; x++) {
            for (int64_t c = 0; c < 3; c++) {
                int64_t base = (x * (3 + c) + y * (5 - c)) * 255 / (3 * width + 5 * height + 1) % 256;
                int64_t v = base / 2 + (x / 37 + y / 23 + c) % 2 * 64 +
                            (g4_noise((uint64_t)((y * width + x) * 3 + c), seed) & 63);
                *at++ = (uint8_t)(v > 255 ? 255 : v);
            }
        }
    }
    return p;
}

enum { G4_SILENCE, G4_CLICK, G4_SPEECH };

static int64_t g4_triangle(int64_t i, int64_t period)
{
    int64_t v = i % period * 4 - 2 * period;
    return (v < 0 ? -v : v) * 8000 / period - 8000;
}

static float *g4_sound(size_t n, int kind, uint32_t seed)
{
    float *p = malloc(n * sizeof *p);
    if (!p) return NULL;
    for (size_t s = 0; s < n; s++) {
        int64_t i = (int64_t)s, v = 0;
        if (kind == G4_CLICK) v = s == n / 2 ? 30000 : 0;
        if (kind == G4_SPEECH) {
            int64_t slope = i / 16 % 500 - 250, envelope = slope < 0 ? -slope : slope,
                    grain = (int64_t)(g4_noise(s, seed) & 255) - 128;
            int64_t loud = (g4_triangle(i, 73 + seed) + g4_triangle(i, 211 + seed)) * envelope;
            v = (loud >= 0 ? loud / 250 : -((-loud + 249) / 250)) + grain; /* Python's // rounds down */
            if (s >= 456000 && s < 459200) v = grain >= 0 ? grain / 8 : -((-grain + 7) / 8);
        }
        p[s] = (float)(v < -32768 ? -32768 : v > 32767 ? 32767 : v) / 32768.0f;
    }
    return p;
}

static double g4_max_diff(const float *a, const float *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= most)) most = d; /* a NaN counts */
    }
    return most;
}

#endif
