/* soft.c - soft tokens: counted references, and the few that an engine remembers so that the same picture is not
 * encoded twice. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "compute.h"

#define G4_SOFT_CACHE_BYTES ((size_t)64 << 20) /* of all that are remembered together; one is always kept */

g4_soft *g4_soft_new(const g4_allocator *a, g4_token token, const uint64_t key[2], int n, size_t hidden)
{
    g4_soft *s = g4_alloc(a, 1, sizeof *s);
    if (!s) return NULL;
    s->a = a;
    s->token = token;
    memcpy(s->key, key, sizeof s->key);
    s->n = n;
    s->hidden = hidden;
    atomic_init(&s->refs, 1);
    s->rows = g4_alloc(a, (size_t)n, hidden * sizeof *s->rows);
    if (s->rows) return s;
    g4_free(a, s);
    return NULL;
}

void g4_soft_retain(g4_soft *soft) { atomic_fetch_add(&soft->refs, 1); }

void g4_soft_release(g4_soft *soft)
{
    if (!soft || atomic_fetch_sub(&soft->refs, 1) > 1) return;
    g4_free(soft->a, soft->rows);
    g4_free(soft->a, soft);
}

void g4_soft_hash(uint64_t key[2], const void *data, size_t size)
{
    const uint8_t *p = data;
    uint64_t a = key[0], b = key[1];
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = 0;
        memcpy(&word, p + i, size - i < 8 ? size - i : 8);
        a = (a ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        a = a << 29 | a >> 35;
        b = (b + word) * UINT64_C(0xD6E8FEB86659FD93) ^ a;
        b = b << 32 | b >> 32;
    }
    key[0] = (a ^ size) * UINT64_C(0x9E3779B97F4A7C15);
    key[1] = (b ^ key[0] >> 31) * UINT64_C(0xD6E8FEB86659FD93);
}

/* Take slot i out, its reference with it. */
static g4_soft *g4_soft_cache_take(g4_soft_cache *c, int i)
{
    g4_soft *s = c->slots[i];
    memmove(c->slots + i, c->slots + i + 1, (size_t)(c->n - i - 1) * sizeof(g4_soft *));
    c->n--;
    return s;
}

g4_soft *g4_soft_cache_find(g4_soft_cache *c, const uint64_t key[2])
{
    for (int i = 0; i < c->n; i++) {
        if (memcmp(c->slots[i]->key, key, sizeof c->slots[i]->key) != 0) continue;
        g4_soft *s = g4_soft_cache_take(c, i);
        c->slots[c->n++] = s;
        g4_soft_retain(s);
        return s;
    }
    return NULL;
}

void g4_soft_cache_add(g4_soft_cache *c, g4_soft *soft)
{
    const size_t row = soft->hidden * sizeof(float);
    size_t bytes = (size_t)soft->n * row;
    for (int i = 0; i < c->n; i++) bytes += (size_t)c->slots[i]->n * row;
    while (c->n > 0 && (c->n == G4_SOFT_SLOTS || bytes > G4_SOFT_CACHE_BYTES)) {
        g4_soft *oldest = g4_soft_cache_take(c, 0);
        bytes -= (size_t)oldest->n * row;
        g4_soft_release(oldest);
    }
    g4_soft_retain(soft);
    c->slots[c->n++] = soft;
}

void g4_soft_cache_close(g4_soft_cache *c)
{
    for (int i = 0; i < c->n; i++) g4_soft_release(c->slots[i]);
    c->n = 0;
}

int g4_soft_n(const g4_soft *soft) { return soft ? soft->n : 0; }
g4_token g4_soft_token(const g4_soft *soft) { return soft ? soft->token : -1; }
const float *g4_soft_rows(const g4_soft *soft) { return soft ? soft->rows : NULL; }
