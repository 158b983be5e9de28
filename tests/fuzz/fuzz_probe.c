/* libFuzzer entry for g4_media_probe_data, replayed by tests/test_media_promises.c on the corpora of the readers. A
 * success must tell a kind and what belongs to it, a failure a message; what can be decoded can be probed, and is as
 * large as the prober said. No program is started. */
#include <stdint.h>
#include <string.h>

#include "gemma4.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const g4_media_options opt = { .ffmpeg = "", .max_pixels = 1 << 16, .max_samples = 1 << 16 };
    g4_error err = { G4_OK, "" }, reason;
    g4_media_info info;
    if (size == 0) return 0;
    const g4_status s = g4_media_probe_data(&info, data, size, &opt, &err);
    if (s && (err.code != s || err.message[0] == 0 || info.kind != G4_MEDIA_UNKNOWN)) __builtin_trap();
    if (!s && (info.kind == G4_MEDIA_UNKNOWN || info.format[0] == 0)) __builtin_trap();
    if (!s && info.kind == G4_MEDIA_AUDIO && (info.sample_rate < 1 || info.channels < 1)) __builtin_trap();
    if (!s && info.kind != G4_MEDIA_AUDIO && (info.width < 1 || info.height < 1)) __builtin_trap();
    g4_image image;
    if (!g4_image_decode(&image, data, size, &opt, &reason) &&
        (s || info.kind != G4_MEDIA_IMAGE || info.width != image.width || info.height != image.height))
        __builtin_trap();
    g4_image_free(&image, &opt);
    g4_video video;
    if (!g4_video_decode(&video, data, size, &opt, &reason) &&
        (s || info.kind != G4_MEDIA_VIDEO || info.width != video.frames[0].width || info.n_frames < video.n_frames))
        __builtin_trap();
    g4_video_free(&video, &opt);
    g4_audio audio;
    if (!g4_audio_decode(&audio, data, size, &opt, &reason) && (s || info.kind != G4_MEDIA_AUDIO)) __builtin_trap();
    g4_audio_free(&audio, &opt);
    return 0;
}
