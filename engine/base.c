/* base.c - errors, memory, growable bytes, UTF-8, a byte cursor: what every other file stands on. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- Ending a call early -------------------------------------------------------------------------
 *
 * The flag of the public header is a plain int, so that the header serves C++ too; it is touched by these builtins of
 * gcc and clang, which need no lock and so may be called by signal handlers. */

void g4_cancel_set(g4_cancel *c)
{
    if (c) __atomic_store_n(&c->is_set, 1, __ATOMIC_RELEASE);
}

void g4_cancel_clear(g4_cancel *c)
{
    if (c) __atomic_store_n(&c->is_set, 0, __ATOMIC_RELEASE);
}

static int g4_cancel_is_set(const g4_cancel *c) { return __atomic_load_n(&c->is_set, __ATOMIC_ACQUIRE); }

double g4_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void g4_halt_open(g4_halt *h)
{
    *h = (g4_halt) { .n_flags = 0 };
    atomic_init(&h->ended, 0);
}

void g4_halt_add_flag(g4_halt *h, const g4_cancel *flag)
{
    if (flag && h->n_flags < G4_HALT_FLAGS) h->flags[h->n_flags++] = flag;
}

void g4_halt_add(g4_halt *h, const g4_limits *limits)
{
    if (!limits) return;
    g4_halt_add_flag(h, limits->cancel);
    if (limits->seconds == 0) return;
    const double deadline = g4_seconds() + (limits->seconds > 0 ? limits->seconds : 0); /* less than 0: it is late */
    if (h->deadline > 0 && h->deadline <= deadline) return;
    h->deadline = deadline;
    h->seconds = limits->seconds;
}

static int g4_is_asked(const g4_halt *h)
{
    for (int i = 0; i < h->n_flags; i++)
        if (g4_cancel_is_set(h->flags[i])) return 1;
    return 0;
}

int g4_halted(g4_halt *h)
{
    if (!h) return 0;
    if (atomic_load_explicit(&h->ended, memory_order_relaxed)) return 1;
    const int ends = g4_is_asked(h) ? 1 : h->deadline > 0 && g4_seconds() >= h->deadline ? 2 : 0;
    int not_yet = 0;
    if (ends) atomic_compare_exchange_strong(&h->ended, &not_yet, ends);
    return ends != 0;
}

g4_status g4_halt_check(g4_halt *h, g4_error *err)
{
    if (!g4_halted(h)) return G4_OK;
    if (atomic_load(&h->ended) == 1) return g4_fail(err, G4_ERR_CANCELED, "cancelled");
    return g4_fail(err, G4_ERR_CANCELED, "not done within the %g seconds allowed", h->seconds);
}

/* ---- Memory -------------------------------------------------------------------------------------
 *
 * One allocation function for the whole library. A block starts with a head that remembers where it came from, so
 * that it can be freed, grown and counted through the caller's allocator. Large blocks come from calloc, whose pages
 * cost nothing until touched: work buffers are sized for the largest chunk and only what is used becomes resident. */

typedef struct {
    void *base;         /* what the allocator returned */
    size_t total, size; /* bytes from base; bytes asked for */
} g4_block_head;
_Static_assert(sizeof(g4_block_head) <= G4_ALIGN, "the head fits before the block");

/* A block that is zero behind its first `kept` bytes, which the caller writes. */
static void *g4_block_make(const g4_allocator *a, size_t count, size_t size, size_t kept)
{
    size_t bytes, total;
    if (g4_mul_overflows(count, size, &bytes) || g4_add_overflows(bytes, 2 * G4_ALIGN, &total)) return NULL;
    const int is_theirs = a && a->alloc_fn;
    unsigned char *base = is_theirs ? a->alloc_fn(a->user, total, G4_ALIGN) : calloc(1, total);
    if (!base) return NULL;
    unsigned char *p = base + G4_ALIGN + (G4_ALIGN - (uintptr_t)base % G4_ALIGN) % G4_ALIGN;
    if (kept > bytes) kept = bytes;
    if (is_theirs) memset(p + kept, 0, (size_t)(base + total - p) - kept);
    const g4_block_head head = { base, total, bytes };
    memcpy(p - G4_ALIGN, &head, sizeof head);
    return p;
}

void *g4_alloc(const g4_allocator *a, size_t count, size_t size) { return g4_block_make(a, count, size, 0); }

void g4_free(const g4_allocator *a, void *ptr)
{
    if (!ptr) return;
    g4_block_head head;
    memcpy(&head, (unsigned char *)ptr - G4_ALIGN, sizeof head);
    if (a && a->alloc_fn)
        a->free_fn(a->user, head.base, head.total);
    else
        free(head.base);
}

void *g4_realloc(const g4_allocator *a, void *ptr, size_t count, size_t size)
{
    g4_block_head head = { NULL, 0, 0 };
    if (ptr) memcpy(&head, (unsigned char *)ptr - G4_ALIGN, sizeof head);
    void *grown = g4_block_make(a, count, size, head.size);
    if (!grown || !ptr) return grown;
    const size_t bytes = count * size;
    memcpy(grown, ptr, head.size < bytes ? head.size : bytes);
    g4_free(a, ptr);
    return grown;
}

int g4_copy(void *to, const void *from, size_t n, g4_halt *h)
{
    for (size_t pos = 0; pos < n; pos += G4_COPY_PIECE) {
        if (pos > 0 && g4_halted(h)) return 0;
        memcpy((uint8_t *)to + pos, (const uint8_t *)from + pos, g4_min_size(n - pos, G4_COPY_PIECE));
    }
    return 1;
}

void *g4_grow(const g4_allocator *a, void *ptr, size_t used, size_t count, size_t size, g4_halt *h)
{
    void *grown = g4_alloc(a, count, size);
    const int is_whole = grown && g4_copy(grown, ptr, used, h);
    g4_free(a, is_whole ? ptr : grown);
    return is_whole ? grown : NULL;
}

void *g4_blocks_add(g4_blocks *b, size_t rows, size_t cols, size_t size)
{
    size_t n = 0, bytes = 0, total = 0;
    const int fits = !g4_mul_overflows(rows, cols, &n) && !g4_mul_overflows(n, size, &bytes) &&
                     !g4_add_overflows(bytes, G4_ALIGN, &total);
    if (fits && b->only_counts) {
        b->bytes += bytes;
        return NULL;
    }
    unsigned char *block = fits ? g4_alloc(b->a, total, 1) : NULL;
    if (!block) {
        b->failed = 1;
        return NULL;
    }
    memcpy(block, &b->newest, sizeof b->newest); /* the line in front of what the caller gets */
    b->newest = block;
    b->bytes += bytes;
    return block + G4_ALIGN;
}

void g4_blocks_free(g4_blocks *b)
{
    while (b->newest) {
        void *before;
        memcpy(&before, b->newest, sizeof before);
        g4_free(b->a, b->newest);
        b->newest = before;
    }
    b->bytes = 0;
    b->failed = 0;
}

void *g4_array_grow(const g4_allocator *a, void *array, int n, int *cap, size_t size)
{
    if (n < *cap) return array;
    const int more = *cap == 0 ? 16 : *cap > INT32_MAX / 2 ? 0 : *cap * 2;
    void *grown = more > 0 ? g4_realloc(a, array, (size_t)more, size) : NULL;
    if (grown) *cap = more;
    return grown;
}

/* ---- Errors ------------------------------------------------------------------------------------ */

g4_status g4_fail(g4_error *err, g4_status code, const char *fmt, ...)
{
    if (!err) return code;
    err->code = code;
    va_list args;
    va_start(args, fmt);
    vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    return code;
}

const char *g4_version(void) { return G4_VERSION; }

const char *g4_status_name(g4_status code)
{
    switch (code) {
    case G4_OK: return "G4_OK";
    case G4_ERR_ARGUMENT: return "G4_ERR_ARGUMENT";
    case G4_ERR_MEMORY: return "G4_ERR_MEMORY";
    case G4_ERR_IO: return "G4_ERR_IO";
    case G4_ERR_FORMAT: return "G4_ERR_FORMAT";
    case G4_ERR_VERSION: return "G4_ERR_VERSION";
    case G4_ERR_UNSUPPORTED: return "G4_ERR_UNSUPPORTED";
    case G4_ERR_CONTEXT: return "G4_ERR_CONTEXT";
    case G4_ERR_MISMATCH: return "G4_ERR_MISMATCH";
    case G4_ERR_CANCELED: return "G4_ERR_CANCELED";
    }
    return "unknown g4_status";
}

/* ---- Growable bytes ---------------------------------------------------------------------------- */

int g4_buf_reserve(g4_buf *b, size_t n)
{
    size_t need;
    if (b->failed) return 0;
    if (g4_add_overflows(b->len, n, &need) || g4_add_overflows(need, 1, &need)) {
        b->failed = 1;
        return 0;
    }
    if (need <= b->cap) return 1;
    size_t cap = b->cap < 64 ? 64 : b->cap;
    while (cap < need) cap = cap > SIZE_MAX / 2 ? need : 2 * cap;
    char *grown = g4_realloc(b->a, b->data, cap, 1);
    if (!grown) {
        b->failed = 1;
        return 0;
    }
    b->data = grown;
    b->cap = cap;
    return 1;
}

void g4_buf_add(g4_buf *b, const void *data, size_t n)
{
    if (!g4_buf_reserve(b, n)) return;
    if (n > 0) memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = 0;
}

void g4_buf_str(g4_buf *b, const char *s) { g4_buf_add(b, s, strlen(s)); }

void g4_buf_fmt(g4_buf *b, const char *fmt, ...)
{
    char small[256];
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(small, sizeof small, fmt, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof small) {
        g4_buf_add(b, small, (size_t)n);
        return;
    }
    char *big = n < 0 ? NULL : g4_alloc(b->a, (size_t)n + 1, 1);
    if (!big) {
        b->failed = 1;
        return;
    }
    va_start(args, fmt);
    vsnprintf(big, (size_t)n + 1, fmt, args);
    va_end(args);
    g4_buf_add(b, big, (size_t)n);
    g4_free(b->a, big);
}

void g4_buf_free(g4_buf *b)
{
    g4_free(b->a, b->data);
    b->data = NULL;
    b->len = b->cap = 0;
    b->failed = 0;
}

/* ---- UTF-8 ------------------------------------------------------------------------------------- */

size_t g4_utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    static const unsigned char lead[5] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    const size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, cp >>= 6) out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)(lead[n] | cp);
    return n;
}

/* How many of the last bytes begin a UTF-8 sequence that more bytes can complete: 0 to 3. */
static int g4_utf8_unfinished(const uint8_t *p, size_t n)
{
    for (size_t k = 1; k <= 3 && k <= n; k++) {
        const uint8_t a = p[n - k];
        if ((a & 0xc0) == 0x80) continue; /* a continuation: its lead is further left */
        const size_t size = a < 0xc2 || a > 0xf4 ? 1 : a < 0xe0 ? 2 : a < 0xf0 ? 3 : 4;
        if (size <= k) return 0;
        if (k > 1) { /* four leads narrow the second byte: no overlong forms, no surrogates, at most U+10FFFF */
            const uint8_t b = p[n - k + 1];
            if (a == 0xe0 && b < 0xa0) return 0;
            if (a == 0xed && b > 0x9f) return 0;
            if (a == 0xf0 && b < 0x90) return 0;
            if (a == 0xf4 && b > 0x8f) return 0;
        }
        return (int)k;
    }
    return 0;
}

size_t g4_utf8_push(g4_utf8 *u, const char *data, size_t n, char *out)
{
    if (u == NULL || out == NULL) return 0;
    const size_t held = u->n_held > 0 && u->n_held <= 3 ? (size_t)u->n_held : 0;
    u->n_held = 0;
    memcpy(out, u->held, held);
    if (data == NULL) return held; /* the end: nothing can complete it */
    memcpy(out + held, data, n);
    const int keep = g4_utf8_unfinished((const uint8_t *)out, held + n);
    const size_t whole = held + n - (size_t)keep;
    memcpy(u->held, out + whole, (size_t)keep);
    u->n_held = keep;
    return whole;
}

/* ---- Byte cursor -------------------------------------------------------------------------------- */

const uint8_t *g4_read_bytes(g4_reader *r, size_t n)
{
    if (r->bad || n > r->size || r->pos > r->size - n) {
        r->bad = 1;
        return NULL;
    }
    const uint8_t *p = r->data + r->pos;
    r->pos += n;
    return p;
}

uint32_t g4_read_u32(g4_reader *r)
{
    const uint8_t *p = g4_read_bytes(r, 4);
    return p ? (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24 : 0;
}

uint64_t g4_read_u64(g4_reader *r)
{
    const uint64_t low = g4_read_u32(r);
    return low | (uint64_t)g4_read_u32(r) << 32;
}
