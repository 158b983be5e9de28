/* libFuzzer entry for the tokenizer, replayed by tests/test_tokenizer.c. Run from the repository root.
 *
 * Byte 0 of the input: bit 0 specials; bit 2 the vocabulary of the family and not a small one; bit 1 damage the small
 * one first: byte 1 % 32 edits of 4 bytes each follow (24-bit offset, new byte). The rest is the text. A sound
 * vocabulary must give the text back, without control tokens unless they are asked for; a damaged one may give
 * anything, safely. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t *g4_fuzz_blob;
static size_t g4_fuzz_size;
static uint32_t g4_fuzz_n_vocab;

/* The tokenizer section of a model file, in a block of exactly its size; NULL if it is not there. */
static uint8_t *g4_read_blob(const char *path, size_t *size, uint32_t *n_vocab)
{
    g4_file_header h;
    uint8_t *blob = NULL;
    FILE *f = fopen(path, "rb");
    if (f == NULL) return NULL;
    if (fread(&h, sizeof h, 1, f) == 1 && fseek(f, (long)h.tokenizer_offset, SEEK_SET) == 0) {
        *size = (size_t)h.tokenizer_size;
        blob = malloc(*size);
        if (blob != NULL && (fread(blob, 1, *size, f) != *size || *size < 20)) {
            free(blob);
            blob = NULL;
        }
        if (blob != NULL) memcpy(n_vocab, blob + 16, 4);
    }
    fclose(f);
    return blob;
}

static void g4_fuzz_check(int ok)
{
    if (!ok) abort();
}

/* Decoded ids must be the text with U+2581 as a space. */
static void g4_fuzz_round_trip(const g4_tokenizer *t, const g4_tokens *ids, const uint8_t *text, size_t len)
{
    size_t p = 0;
    for (size_t i = 0; i < ids->n; i++) {
        char piece[256];
        int special;
        const size_t n = g4_tokenizer_piece(t, ids->ids[i], piece, &special);
        for (size_t j = 0; j < n; j++) {
            if (piece[j] == ' ' && p + 3 <= len && memcmp(text + p, "\xe2\x96\x81", 3) == 0)
                p += 3;
            else
                g4_fuzz_check(p < len && text[p++] == (uint8_t)piece[j]);
        }
    }
    g4_fuzz_check(p == len);
}

/* A text through a vocabulary, and what it is looked up as. With is_sound it must come back. */
static void g4_fuzz_text(const g4_tokenizer *t, uint32_t n_vocab, const uint8_t *text, size_t len, int specials,
                         int is_sound)
{
    g4_tokens ids = { 0 };
    g4_fuzz_check(g4_tokenizer_encode(t, NULL, (const char *)text, len, specials, &ids, NULL, NULL) == G4_OK);
    if (is_sound) g4_fuzz_round_trip(t, &ids, text, len);
    for (size_t i = 0; i < ids.n; i++) {
        char piece[256];
        int special;
        g4_fuzz_check(ids.ids[i] >= 0 && (uint32_t)ids.ids[i] < n_vocab);
        g4_fuzz_check(g4_tokenizer_piece(t, ids.ids[i], piece, &special) < 256);
        g4_fuzz_check(!is_sound || specials || !special);
    }
    const g4_token id = g4_tokenizer_special(t, (const char *)text, len);
    g4_fuzz_check(id >= -1 && id < (g4_token)n_vocab);
    g4_free(NULL, ids.ids);
}

/* The vocabulary of the family, which is read and checked once. */
static void g4_fuzz_real(const uint8_t *text, size_t len, int specials)
{
    static g4_tokenizer t;
    static uint32_t n_vocab;
    static uint8_t *blob;
    size_t size;
    if (blob == NULL) {
        blob = g4_read_blob("tests/data/vocab.g4", &size, &n_vocab);
        g4_fuzz_check(blob != NULL && g4_tokenizer_bind(&t, blob, size, n_vocab, NULL) == G4_OK);
    }
    g4_fuzz_text(&t, n_vocab, text, len, specials, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (g4_fuzz_blob == NULL)
        g4_fuzz_blob = g4_read_blob("tests/data/tokenizer_small.g4", &g4_fuzz_size, &g4_fuzz_n_vocab);
    if (g4_fuzz_blob == NULL || size < 2) return 0;
    const int specials = data[0] & 1, damage = data[0] >> 1 & 1;
    if ((data[0] >> 2 & 1) != 0) {
        g4_fuzz_real(data + 1, size - 1, specials);
        return 0;
    }
    size_t p = 1;
    uint8_t *blob = g4_fuzz_blob;
    if (damage) {
        blob = malloc(g4_fuzz_size);
        g4_fuzz_check(blob != NULL);
        memcpy(blob, g4_fuzz_blob, g4_fuzz_size);
        size_t n = data[p++] % 32u;
        for (; n > 0 && p + 4 <= size; n--, p += 4) {
            const size_t at = (size_t)data[p] | (size_t)data[p + 1] << 8 | (size_t)data[p + 2] << 16;
            blob[at % g4_fuzz_size] = data[p + 3];
        }
    }
    g4_tokenizer t;
    if (g4_tokenizer_bind(&t, blob, g4_fuzz_size, g4_fuzz_n_vocab, NULL) == G4_OK)
        g4_fuzz_text(&t, g4_fuzz_n_vocab, data + p, size - p, specials, !damage);
    else
        g4_fuzz_check(damage);
    if (damage) free(blob);
    return 0;
}
