/* edits.h - what fuzzers of large files take as input: not the file, but changes to a good one. An edit is 8 bytes: u32
 * where and u32 what, little-endian. */
#ifndef G4_EDITS_H
#define G4_EDITS_H

#include "engine/session.h" /* first: it asks libc for all that is needed */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { G4_MAX_EDITS = 16, G4_EDIT_BYTES = 8 };

static inline uint32_t g4_edit_number(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* What one of these becomes: set, changed in one bit, or moved a little. */
static inline uint32_t g4_edit_value(uint32_t old, uint32_t how, uint32_t what)
{
    switch (how % 4) {
    case 0: return what;
    case 1: return old ^ 1u << what % 32;
    case 2: return old + what % 256 - 128;
    default: return old ^ what;
    }
}

/* A whole file in memory aligned as the library wants it, or NULL. */
static inline uint8_t *g4_edit_read(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    uint8_t *data = NULL;
    if (f == NULL) return NULL;
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    data = aligned_alloc(64, (*size + 63) / 64 * 64);
    if (data != NULL && fread(data, 1, *size, f) != *size) *size = 0;
    fclose(f);
    return data;
}

static inline void g4_edit_check(int ok)
{
    if (!ok) abort();
}

/* Memory to save a session to and to load it from. */
typedef struct {
    uint8_t *data;
    size_t size, cap, pos;
} g4_edit_store;
static inline int g4_edit_write(void *user, const void *data, size_t n)
{
    g4_edit_store *s = (g4_edit_store *)user;
    if (s->size + n > s->cap) {
        s->cap = 2 * (s->size + n);
        s->data = (uint8_t *)realloc(s->data, s->cap);
        g4_edit_check(s->data != NULL);
    }
    memcpy(s->data + s->size, data, n);
    s->size += n;
    return 0;
}
static inline int g4_edit_take(void *user, void *data, size_t n)
{
    g4_edit_store *s = (g4_edit_store *)user;
    if (n > s->size - s->pos) return 1;
    memcpy(data, s->data + s->pos, n);
    s->pos += n;
    return 0;
}

#endif
