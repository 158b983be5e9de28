/* picture_fuzz.h - what the fuzz targets of pictures share: a success must have a result, a failure a message, and no
 * program is started. */
#ifndef G4_PICTURE_FUZZ_H
#define G4_PICTURE_FUZZ_H

#include <stdint.h>
#include <string.h>

#include "gemma4.h"

/* Input that does not begin with the signature is of no interest. */
static inline void g4_fuzz_picture(const uint8_t *data, size_t size, const char *signature)
{
    const g4_media_options opt = { .ffmpeg = "", .max_pixels = 1 << 18 };
    g4_error err = { G4_OK, "" };
    g4_image img;
    if (size < strlen(signature) || memcmp(data, signature, strlen(signature)) != 0) return;
    if (!g4_image_decode(&img, data, size, &opt, &err) && (!img.pixels || img.width < 1 || img.height < 1))
        __builtin_trap();
    g4_image_free(&img, &opt);
    if (err.code != G4_OK && err.message[0] == 0) __builtin_trap();
}

#endif
