/* libFuzzer entry for lossy WebP, replayed by tests/test_media.c on tests/fuzz/corpus_webp. The first two bytes say how
 * many of those behind them are an ALPH chunk; the others are the picture, whose start code is made right. */
#include <stdlib.h>

#include "picture_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A chunk of n bytes at p, with its header and a byte that makes its size even. Returns what is behind it. */
static uint8_t *g4_fuzz_webp_chunk(uint8_t *p, const char *name, const uint8_t *data, size_t n)
{
    memcpy(p, name, 4);
    for (size_t i = 0; i < 4; i++) p[4 + i] = (uint8_t)(n >> 8 * i);
    if (n > 0) memcpy(p + 8, data, n);
    if (n & 1) p[8 + n] = 0;
    return p + 8 + n + (n & 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t canvas[10] = { 0x10 }; /* with alpha */
    if (size < 2 + 10) return 0;
    const size_t room = size - 2 - 10, said = (size_t)data[0] | (size_t)data[1] << 8, n = said < room ? said : room;
    uint8_t *file = malloc(12 + 8 + sizeof canvas + 8 + n + 1 + 8 + size + 1), *p = file;
    if (!file) return 0;
    memcpy(file, "RIFF....WEBP", 12);
    p = g4_fuzz_webp_chunk(file + 12, "VP8X", canvas, sizeof canvas);
    if (n > 0) p = g4_fuzz_webp_chunk(p, "ALPH", data + 2, n);
    uint8_t *const image = p;
    p = g4_fuzz_webp_chunk(p, "VP8 ", data + 2 + n, size - 2 - n);
    memcpy(image + 8 + 3, "\x9d\x01\x2a", 3);
    uint8_t *exact = realloc(file, (size_t)(p - file)); /* for the sanitizers */
    if (exact) g4_fuzz_picture(exact, (size_t)(p - file), "");
    free(exact ? exact : file);
    return 0;
}
