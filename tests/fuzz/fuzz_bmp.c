/* libFuzzer entry for the bitmap reader, replayed by tests/test_media.c on tests/fuzz/corpus_bmp. */
#include "picture_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g4_fuzz_picture(data, size, "BM");
    return 0;
}
