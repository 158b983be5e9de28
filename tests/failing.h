/* failing.h - an allocator for tests: fails the n-th allocation, counts what is still allocated. */
#ifndef G4_FAILING_H
#define G4_FAILING_H

#include <stdlib.h>

#include "gemma4.h"

typedef struct {
    long calls, fail_at; /* fail_at < 0: never; else the call of that index (from 0) gets NULL */
    long live;           /* blocks not freed yet */
} g4_failing;

static void *g4_failing_alloc(void *user, size_t size, size_t align)
{
    g4_failing *f = user;
    if (f->calls++ == f->fail_at) return NULL;
    void *p = aligned_alloc(align, (size + align - 1) / align * align);
    if (p != NULL) f->live++;
    return p;
}

static void g4_failing_free(void *user, void *ptr, size_t size)
{
    (void)size;
    if (ptr != NULL) ((g4_failing *)user)->live--;
    free(ptr);
}

static inline g4_allocator g4_failing_allocator(g4_failing *f)
{
    g4_allocator a = { g4_failing_alloc, g4_failing_free, f };
    return a;
}

#endif
