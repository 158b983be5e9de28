/* libFuzzer entry for the readers of icons, X bitmaps and Targa pictures, replayed by tests/test_media.c on
 * tests/fuzz/corpus_small. The first byte chooses the kind, whose signature is put in front; Targa has none, so that
 * the bytes of its head that tell it are made valid. */
#include <stdlib.h>

#include "picture_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void g4_fuzz_tga_head(uint8_t *d)
{
    static const uint8_t kinds[][2] = { { 1, 8 },  { 9, 8 },   { 2, 15 },  { 2, 16 },  { 2, 24 },
                                        { 2, 32 }, { 10, 15 }, { 10, 16 }, { 10, 24 }, { 10, 32 },
                                        { 3, 1 },  { 3, 8 },   { 3, 16 },  { 11, 8 },  { 11, 16 } };
    const uint8_t *kind = kinds[d[2] % (sizeof kinds / sizeof *kinds)];
    d[1] = kind[0] % 8 == 1 || d[1] & 1;
    d[2] = kind[0];
    d[13] = d[15] = 0;
    d[16] = kind[1];
    d[17] &= 0x3f;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const signatures[] = { "", "\0\0\1", "#define _width " };
    static const size_t lengths[] = { 0, 4, 15 };
    const size_t kind = size > 0 ? data[0] % 3 : 0, n = lengths[kind];
    if (size < 19) return 0;
    uint8_t *file = malloc(n + size - 1); /* of exactly this size, for the sanitizers */
    if (!file) return 0;
    memcpy(file, signatures[kind], n);
    memcpy(file + n, data + 1, size - 1);
    if (kind == 0) g4_fuzz_tga_head(file);
    g4_fuzz_picture(file, n + size - 1, "");
    free(file);
    return 0;
}
