/* libFuzzer entry for the readers of pictures that are rarely met, replayed by tests/test_media.c on
 * tests/fuzz/corpus_rare: DDS, SGI, QOI, PCX, DCX, cursors, GIF,
 * lossless WebP. The first byte chooses the kind, whose signature is put in
 * front. */
#include <stdlib.h>

#include "picture_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct {
        char bytes[22];
        uint8_t n;
    } kinds[] = { { "DDS ", 4 },
                  { "\x01\xda", 2 },
                  { "qoif", 4 },
                  { "\x0a", 1 },
                  { "\xb1\x68\xde\x3a", 4 },
                  { "\0\0\2", 4 },
                  { "GIF89a", 6 },
                  { "RIFF....WEBPVP8L....\x2f", 21 } };
    if (size < 2) return 0;
    const size_t kind = data[0] % (sizeof kinds / sizeof *kinds), n = kinds[kind].n;
    uint8_t *file = malloc(n + size - 1); /* of exactly this size, for the sanitizers */
    if (!file) return 0;
    memcpy(file, kinds[kind].bytes, n);
    memcpy(file + n, data + 1, size - 1);
    for (size_t i = 0; n == 21 && i < 4; i++) file[16 + i] = (uint8_t)(size >> 8 * i); /* bytes of the chunk */
    g4_fuzz_picture(file, n + size - 1, "");
    free(file);
    return 0;
}
