/* libFuzzer entry for the PNG reader, replayed by tests/test_media.c on tests/fuzz/corpus_png. No program is started.
 *
 * Checksums would stop almost every mutation, so they are made right first. Input that is not a PNG file describes one:
 * width, height, depth, colour type, interlace, size of palette and tRNS (a byte each), palette, tRNS, then the
 * filtered rows, which are stored uncompressed. Either way a success must have a result and a failure a message. */
#include <stdlib.h>

#include "picture_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void g4_fuzz_big(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static uint32_t g4_fuzz_crc(const uint8_t *p, size_t n)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++) crc = crc & 1 ? 0xedb88320u ^ crc >> 1 : crc >> 1;
    }
    return ~crc;
}

static size_t g4_fuzz_chunk(uint8_t *out, const char *name, const uint8_t *data, size_t n)
{
    g4_fuzz_big(out, (uint32_t)n);
    memcpy(out + 4, name, 4);
    if (n > 0) memcpy(out + 8, data, n);
    g4_fuzz_big(out + 8 + n, g4_fuzz_crc(out + 4, n + 4));
    return n + 12;
}

/* The described file in out, which has room for size + 1200 bytes. */
static size_t g4_fuzz_build(uint8_t *out, const uint8_t *data, size_t size)
{
    size_t n_plte = 3 * (size_t)data[5], n_trns = data[6], n = 8;
    data += 7;
    size -= 7;
    if (n_plte > size) n_plte = size;
    if (n_trns > size - n_plte) n_trns = size - n_plte;
    uint8_t head[13] = { 0, 0, 0, data[-7], 0, 0, 0, data[-6], data[-5], data[-4], 0, 0, data[-3] };
    memcpy(out, "\x89PNG\r\n\x1a\n", 8);
    n += g4_fuzz_chunk(out + n, "IHDR", head, 13);
    if (n_plte > 0) n += g4_fuzz_chunk(out + n, "PLTE", data, n_plte);
    if (n_trns > 0) n += g4_fuzz_chunk(out + n, "tRNS", data + n_plte, n_trns);
    const uint8_t *rows = data + n_plte + n_trns;
    size_t n_rows = size - n_plte - n_trns;
    if (n_rows > 65535) n_rows = 65535;
    uint8_t *z = malloc(n_rows + 11);
    if (!z) return 0;
    uint32_t a = 1, b = 0, len = (uint32_t)n_rows;
    for (size_t i = 0; i < n_rows; i++) {
        a = (a + rows[i]) % 65521;
        b = (b + a) % 65521;
    }
    const uint8_t start[7] = { 0x78, 0x01, 1, (uint8_t)len, (uint8_t)(len >> 8), (uint8_t)~len, (uint8_t)(~len >> 8) };
    memcpy(z, start, 7);
    memcpy(z + 7, rows, n_rows);
    g4_fuzz_big(z + 7 + n_rows, b << 16 | a);
    n += g4_fuzz_chunk(out + n, "IDAT", z, n_rows + 11);
    free(z);
    return n + g4_fuzz_chunk(out + n, "IEND", NULL, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8) return 0;
    uint8_t *file = malloc(size + 1200);
    if (!file) return 0;
    size_t n = size;
    if (data[0] == 0x89) {
        memcpy(file, data, size);
        memcpy(file, "\x89PNG\r\n\x1a\n", 8);
        for (size_t at = 8; size - at >= 12;) {
            size_t len = (size_t)file[at] << 24 | (size_t)file[at + 1] << 16 | (size_t)file[at + 2] << 8 | file[at + 3];
            if (len > size - at - 12) break;
            g4_fuzz_big(file + at + 8 + len, g4_fuzz_crc(file + at + 4, len + 4));
            at += 12 + len;
        }
    } else {
        n = g4_fuzz_build(file, data, size);
    }
    uint8_t *exact = realloc(file, n); /* so that the sanitizer sees every byte too many */
    if (exact) file = exact;
    g4_fuzz_picture(file, n, "\x89PNG");
    free(file);
    return 0;
}
