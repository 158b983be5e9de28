/* libFuzzer entry for the TIFF reader, replayed by tests/test_media.c on tests/fuzz/corpus_tiff. No program is
 * started.
 *
 * Input that is not a TIFF file describes one, so that a change of a byte is a change of meaning: byte order,
 * BigTIFF, size, strips or tiles, samples, how they are packed. Then come the bytes of the pixels, which all
 * strips and tiles share. */
#include <stdlib.h>

#include "picture_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    uint8_t *p;
    size_t n;
    int big, is_long;
} g4_fuzz_tiff_file;

static void g4_fuzz_tiff_number(g4_fuzz_tiff_file *f, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) f->p[f->n++] = (uint8_t)(v >> 8 * (f->big ? bytes - 1 - i : i));
}

/* A tag with `count` values of two bytes; those that do not fit stand at byte `at`. */
static void g4_fuzz_tiff_tag(g4_fuzz_tiff_file *f, uint32_t tag, uint32_t type, uint32_t count, uint32_t value,
                             size_t at)
{
    const uint32_t bytes = type == 3 ? 2 : type == 4 ? 4 : 1, room = f->is_long ? 8 : 4;
    g4_fuzz_tiff_number(f, tag, 2);
    g4_fuzz_tiff_number(f, type, 2);
    g4_fuzz_tiff_number(f, count, (int)room);
    const size_t start = f->n;
    if (count * bytes > room)
        g4_fuzz_tiff_number(f, at, (int)room);
    else
        for (uint32_t i = 0; i < count; i++) g4_fuzz_tiff_number(f, value, (int)bytes);
    while (f->n < start + room) f->p[f->n++] = 0;
}

enum { G4_FUZZ_TIFF_HEAD = 16, G4_FUZZ_TIFF_ROOM = 65536 };

/* The described file. The pixels stand behind the first 4096 bytes, and end the file. */
static size_t g4_fuzz_build_tiff(uint8_t *out, const uint8_t *d, const uint8_t *pixels, size_t n)
{
    static const uint16_t packed[8] = { 1, 5, 7, 8, 32773, 32946, 6, 34925 }, meanings[8] = { 0, 1, 2, 3, 5, 6, 8, 2 };
    static const uint8_t bits[8] = { 8, 1, 2, 4, 12, 16, 32, 8 };
    static const uint16_t fax[4] = { 2, 3, 4, 32771 };
    const int is_fax = d[4] >= 0xc0; /* then a pixel has one bit */
    const size_t start = 4096;
    g4_fuzz_tiff_file f = { out, 0, d[0] & 1, d[0] >> 1 & 1 };
    const int is_tiled = d[0] >> 2 & 1;
    memset(out, d[15], start);
    const uint8_t head[8] = { f.big ? 'M' : 'I', f.big ? 'M' : 'I' };
    memcpy(out, head, 8);
    f.n = 2;
    g4_fuzz_tiff_number(&f, f.is_long ? 43 : 42, 2);
    if (f.is_long) g4_fuzz_tiff_number(&f, 8, 2);
    f.n = f.is_long ? 8 : 4;
    g4_fuzz_tiff_number(&f, G4_FUZZ_TIFF_HEAD, f.is_long ? 8 : 4);
    f.n = G4_FUZZ_TIFF_HEAD;
    g4_fuzz_tiff_number(&f, 19, f.is_long ? 8 : 2);
    g4_fuzz_tiff_tag(&f, 256, 3, 1, d[1] + 1u, 0);
    g4_fuzz_tiff_tag(&f, 257, 3, 1, d[2] + 1u, 0);
    g4_fuzz_tiff_tag(&f, 258, 3, 1, is_fax ? 1 : bits[d[3] & 7], 0);
    g4_fuzz_tiff_tag(&f, 259, 3, 1, is_fax ? fax[d[4] & 3] : packed[d[4] & 7], 0);
    g4_fuzz_tiff_tag(&f, 262, 3, 1, is_fax ? d[5] & 1u : meanings[d[5] & 7], 0);
    g4_fuzz_tiff_tag(&f, 266, 3, 1, 1 + (d[0] >> 3 & 1), 0);
    g4_fuzz_tiff_tag(&f, 274, 3, 1, d[6] % 10u, 0);
    g4_fuzz_tiff_tag(&f, 277, 3, 1, is_fax ? 1 : d[7] % 9u, 0);
    g4_fuzz_tiff_tag(&f, 284, 3, 1, 1 + (d[0] >> 4 & 1), 0);
    g4_fuzz_tiff_tag(&f, 292, 4, 1, d[8] >> 4, 0);
    g4_fuzz_tiff_tag(&f, 317, 3, 1, d[8] & 3, 0);
    g4_fuzz_tiff_tag(&f, 320, 3, 768, 0, 1024);
    g4_fuzz_tiff_tag(&f, 338, 3, 1, d[9] & 3, 0);
    g4_fuzz_tiff_tag(&f, 339, 3, 1, d[10] & 3, 0);
    g4_fuzz_tiff_tag(&f, 530, 3, 2, 1 + (d[11] & 3), 0);
    g4_fuzz_tiff_tag(&f, is_tiled ? 322 : 278, 3, 1, d[12] + 1u, 0);
    g4_fuzz_tiff_tag(&f, is_tiled ? 323 : 700, 3, 1, d[13] + 1u, 0);
    g4_fuzz_tiff_tag(&f, is_tiled ? 324 : 273, 4, 300, 0, 2600);
    g4_fuzz_tiff_tag(&f, is_tiled ? 325 : 279, 4, 300, 0, 2600);
    f.n = 2600;
    for (size_t i = 0; i < 300; i++) g4_fuzz_tiff_number(&f, start + i * d[14], 4);
    const int is_xz =
        !is_fax && packed[d[4] & 7] == 34925; /* its head says nothing but whether there are differences */
    uint8_t xz[27] = "\xfd"
                     "7zXZ";
    const uint8_t block[15] = { 2, d[15] & 1, d[15] & 1 ? 3 : 0x21, 1, d[15] >> 1 & 3, 0x21, 1 };
    memcpy(xz + 12, block, sizeof block);
    const size_t n_head = is_xz ? 24 : 0;
    memcpy(out + start, xz, n_head);
    memcpy(out + start + n_head, pixels, n);
    return start + n_head + n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 16 || size > G4_FUZZ_TIFF_ROOM - 4096 - 24) return 0;
    uint8_t *file = malloc(G4_FUZZ_TIFF_ROOM);
    if (!file) return 0;
    size_t n = size;
    if (data[0] == 'I' || data[0] == 'M')
        memcpy(file, data, size);
    else
        n = g4_fuzz_build_tiff(file, data, data + 16, size - 16);
    uint8_t *exact = realloc(file, n); /* so that the sanitizer sees every byte too many */
    if (exact) file = exact;
    g4_fuzz_picture(file, n, "");
    free(file);
    return 0;
}
