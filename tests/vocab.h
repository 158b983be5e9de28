/* vocab.h - the tokenizer section of a model file, for tests without an engine. */
#ifndef G4_VOCAB_H
#define G4_VOCAB_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat/chat.h"

/* Reads and binds; returns the block to free, or NULL. */
static inline uint8_t *g4_vocab_open(g4_tokenizer *t, const char *path)
{
    g4_file_header h;
    uint8_t *blob = NULL;
    uint32_t n_vocab = 0;
    FILE *f = fopen(path, "rb");
    if (f == NULL) return NULL;
    if (fread(&h, sizeof h, 1, f) == 1 && fseek(f, (long)h.tokenizer_offset, SEEK_SET) == 0) {
        blob = malloc((size_t)h.tokenizer_size);
        int ok =
            blob != NULL && h.tokenizer_size >= 20 && fread(blob, 1, (size_t)h.tokenizer_size, f) == h.tokenizer_size;
        if (ok) memcpy(&n_vocab, blob + 16, 4);
        if (!ok || g4_tokenizer_bind(t, blob, (size_t)h.tokenizer_size, n_vocab, NULL) != G4_OK) {
            free(blob);
            blob = NULL;
        }
    }
    fclose(f);
    return blob;
}

#endif
