/* table.c - hash tables from the hash of an element to its place in a list: how what is equal is known again. The list
 * is its owner's, and so is the comparison of what has the same hash. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <string.h>

uint32_t g4_hash_bytes(const char *s, size_t n)
{
    uint64_t h = n, word;
    for (; n >= sizeof word; s += sizeof word, n -= sizeof word) { /* a division of the bytes has 256 */
        memcpy(&word, s, sizeof word);
        h = g4_hash_mix(h, word);
    }
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
    return (uint32_t)g4_hash_mix(h, n);
}

void g4_table_put(g4_hash_table *t, uint32_t hash, int32_t index)
{
    uint32_t i = 0;
    while (g4_table_slot(t, hash, i)->epoch == t->epoch) i++;
    *g4_table_slot(t, hash, i) = (g4_slot) { t->epoch, hash, index };
}

int g4_table_reserve(g4_hash_table *t, const g4_allocator *a, int n)
{
    if (n * 2 < t->n_slots) return 1;
    g4_hash_table grown = { .n_slots = t->n_slots == 0 ? 64 : t->n_slots * 2, .epoch = 1 };
    grown.slots = g4_alloc(a, (size_t)grown.n_slots, sizeof *grown.slots);
    if (grown.slots == NULL) return 0;
    for (int i = 0; i < t->n_slots; i++)
        if (t->slots[i].epoch == t->epoch) g4_table_put(&grown, t->slots[i].hash, t->slots[i].index);
    g4_free(a, t->slots);
    *t = grown;
    return 1;
}

void g4_table_clear(g4_hash_table *t)
{
    if (t->slots == NULL || ++t->epoch != 0) return;
    memset(t->slots, 0, (size_t)t->n_slots * sizeof *t->slots);
    t->epoch = 1;
}
