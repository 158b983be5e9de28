/* libFuzzer entry for the WAV reader, replayed by tests/test_media.c on tests/fuzz/corpus_wav. A success must have a
 * result, a failure a message; no program is started. */
#include <stdint.h>
#include <string.h>

#include "gemma4.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const g4_media_options opt = { .ffmpeg = "", .max_pixels = 1 << 18, .max_samples = 1 << 18 };
    g4_error err = { G4_OK, "" };
    if (size < 4 || memcmp(data, "RIFF", 4) != 0) return 0;
    g4_audio a;
    if (!g4_audio_decode(&a, data, size, &opt, &err) && (!a.samples || a.n_samples == 0)) __builtin_trap();
    g4_audio_free(&a, &opt);
    if (err.code != G4_OK && err.message[0] == 0) __builtin_trap();
    return 0;
}
