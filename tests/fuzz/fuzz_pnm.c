/* libFuzzer entry for the Netpbm reader, replayed by tests/test_media.c on tests/fuzz/corpus_pnm. */
#include "picture_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g4_fuzz_picture(data, size, "P");
    return 0;
}
