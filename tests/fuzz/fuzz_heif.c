/* libFuzzer entry for the container of AVIF and HEIC, replayed by tests/test_media.c on tests/fuzz/corpus_heif. No
 * program is started, so that a good file ends where its stream would be unpacked. Input is what follows the box
 * "ftyp", which is always the same. */
#include <stdlib.h>

#include "picture_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t begin[20] = "\0\0\0\x14"
                                     "ftypavif\0\0\0\0mif1";
    uint8_t *file = malloc(sizeof begin + size);
    if (!file) return 0;
    memcpy(file, begin, sizeof begin);
    if (size > 0) memcpy(file + sizeof begin, data, size);
    g4_fuzz_picture(file, sizeof begin + size, "");
    free(file);
    return 0;
}
