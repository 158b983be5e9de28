/* lzw.c - LZW as GIF and TIFF pack pixels: codes that grow up to 12 bits, each a value, a command, or a word that was
 * met before. A word is the one before it and a value more, so that it stands in what is unpacked already. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#define G4_LZW_BITS 12 /* of the longest code */
#define G4_LZW_WORDS (1 << G4_LZW_BITS)

typedef struct {
    g4_next_piece_fn next;
    void *ctx;
    const uint8_t *p, *end;
    uint64_t bits;
    int n_bits, is_low_first;
} g4_lzw_bits;

static int g4_lzw_code(g4_lzw_bits *b, int n) /* -1: the data have ended */
{
    while (b->n_bits < n) {
        while (b->p == b->end)
            if (!b->next(b->ctx, &b->p, &b->end)) return -1;
        b->bits = b->is_low_first ? b->bits | (uint64_t)*b->p++ << b->n_bits : b->bits << 8 | *b->p++;
        b->n_bits += 8;
    }
    const uint64_t mask = (UINT64_C(1) << n) - 1;
    b->n_bits -= n;
    const int code = (int)((b->is_low_first ? b->bits : b->bits >> b->n_bits) & mask);
    if (b->is_low_first) b->bits >>= n;
    return code;
}

const char *g4_lzw(g4_next_piece_fn next, void *ctx, int value_bits, int is_low_first, uint8_t *out, size_t size,
                   g4_pace *pace)
{
    g4_lzw_bits b = { .next = next, .ctx = ctx, .is_low_first = is_low_first };
    size_t start[G4_LZW_WORDS], at = 0, before = 0, n_before = 0; /* where a word stands in out, and the last one */
    uint16_t length[G4_LZW_WORDS];
    const int clear = 1 << value_bits, early = is_low_first ? 0 : 1; /* TIFF's codes grow one word too soon */
    int width = value_bits + 1, n_words = clear + 2;
    while (at < size) {
        const int code = g4_lzw_code(&b, width);
        size_t n = 1;
        if (code < 0 || code == clear + 1) return "truncated";
        if (code == clear) {
            width = value_bits + 1;
            n_words = clear + 2;
            n_before = 0;
        } else if (n_before > 0 && n_words < G4_LZW_WORDS) {
            start[n_words] = before;
            length[n_words++] = (uint16_t)(n_before + 1);
            if (n_words + early == 1 << width && width < G4_LZW_BITS) width++;
        }
        if (code >= n_words) return "bad LZW code";
        if (code > clear) {
            const uint8_t *word = out + start[code];
            n = g4_min_size(length[code], size - at);
            for (size_t i = 0; i < n; i++) out[at + i] = word[i]; /* the newest one ends with its own first value */
        } else if (code < clear) {
            out[at] = (uint8_t)code;
        }
        if (g4_pace_ends(pace, 16 + n)) return "halted";
        if (code == clear) continue;
        before = at;
        n_before = n;
        at += n;
    }
    return NULL;
}
