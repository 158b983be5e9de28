/* bytes.h - what the tests of media share: bytes that grow, numbers and text put behind them, and heads of files. */
#ifndef G4_BYTES_H
#define G4_BYTES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint8_t *data;
    size_t n, cap;
} g4_bytes;

/* Append; a g4_write_fn too. */
static int g4_put(void *user, const void *data, size_t n)
{
    g4_bytes *b = user;
    if (b->n + n > b->cap) {
        b->cap = 2 * (b->n + n) + 256;
        b->data = realloc(b->data, b->cap);
        if (!b->data) exit(1);
    }
    memcpy(b->data + b->n, data, n);
    b->n += n;
    return 0;
}
/* The n lowest bytes of v, the lowest first. */
static inline void g4_put_le(g4_bytes *b, uint64_t v, int n)
{
    for (int i = 0; i < n; i++, v >>= 8) g4_put(b, &(uint8_t) { (uint8_t)v }, 1);
}
static inline void g4_put_text(g4_bytes *b, const char *text) { g4_put(b, text, strlen(text)); }

/* What begins like a file that a program must read, and is none. */
#define G4_FOREIGN "/* XPM */ and no more"
/* The same as a file; 0: it cannot be written. */
static inline int g4_save_foreign(const char *path)
{
    FILE *f = fopen(path, "wb");
    if (!f) return 0;
    const int failed = fputs(G4_FOREIGN, f) < 0;
    return (fclose(f) == 0) & !failed;
}

/* The beginning of a WAV file of 16-bit stereo, up to the chunks behind its format, which have that many bytes. */
static inline void g4_put_wav_head(g4_bytes *b, uint32_t rate, uint32_t chunks)
{
    g4_put_text(b, "RIFF");
    g4_put_le(b, 28 + chunks, 4);
    g4_put_text(b, "WAVEfmt ");
    g4_put_le(b, 16, 4);
    g4_put_le(b, 1, 2);
    g4_put_le(b, 2, 2);
    g4_put_le(b, rate, 4);
    g4_put_le(b, rate * 4, 4);
    g4_put_le(b, 4, 2);
    g4_put_le(b, 16, 2);
}

/* A y4m file of frames that `put` writes, three bytes a pixel. */
static inline g4_bytes g4_make_y4m(int w, int h, int frames, void (*put)(g4_bytes *b, size_t n))
{
    char head[80];
    g4_bytes b = { 0 };
    snprintf(head, sizeof head, "YUV4MPEG2 W%d H%d F25:1 C444\n", w, h);
    g4_put_text(&b, head);
    for (int i = 0; i < frames; i++) {
        g4_put_text(&b, "FRAME\n");
        put(&b, (size_t)w * (size_t)h * 3);
    }
    return b;
}

#endif
