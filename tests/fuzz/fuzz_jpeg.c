/* libFuzzer entry for the JPEG reader, replayed by tests/test_media.c on tests/fuzz/corpus_jpeg. */
#include "picture_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g4_fuzz_picture(data, size, "\xff\xd8\xff");
    return 0;
}
