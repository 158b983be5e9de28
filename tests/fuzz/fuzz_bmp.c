/* libFuzzer entry for the bitmap reader, replayed by tests/test_media.c on tests/fuzz/corpus_bmp. A success must have a
 * result, a failure a message; no program is started. */
#include <stdint.h>
#include <string.h>

#include "gemma4.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const g4_media_options opt = { .ffmpeg = "", .max_pixels = 1 << 18 };
    g4_error err = { G4_OK, "" };
    if (size < 2 || memcmp(data, "BM", 2) != 0) return 0;
    g4_image img;
    if (!g4_image_decode(&img, data, size, &opt, &err) && (!img.pixels || img.width < 1 || img.height < 1))
        __builtin_trap();
    g4_image_free(&img, &opt);
    if (err.code != G4_OK && err.message[0] == 0) __builtin_trap();
    return 0;
}
