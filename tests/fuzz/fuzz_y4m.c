/* libFuzzer entry for the y4m reader, replayed by tests/test_media.c on tests/fuzz/corpus_y4m. A success must have a
 * result, a failure a message; no program is started. */
#include <stdint.h>
#include <string.h>

#include "gemma4.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const g4_media_options opt = { .ffmpeg = "", .max_pixels = 1 << 18, .max_samples = 1 << 18 };
    g4_error err = { G4_OK, "" };
    if (size < 10 || memcmp(data, "YUV4MPEG2 ", 10) != 0) return 0;
    g4_video v;
    if (!g4_video_decode(&v, data, size, &opt, &err) && v.n_frames == 0) __builtin_trap();
    g4_video_free(&v, &opt);
    if (err.code != G4_OK && err.message[0] == 0) __builtin_trap();
    return 0;
}
