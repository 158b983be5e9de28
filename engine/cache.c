/* cache.c - keys and values of a timeline: pages, their types, and snapshots that hold pages instead of copies. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "compute.h"

/* ---- Pages ---------------------------------------------------------------------------------------- */

static g4_page *g4_page_open(const g4_allocator *a, size_t bytes)
{
    g4_page *p = g4_alloc(a, 1, sizeof *p);
    if (!p) return NULL;
    p->data = g4_alloc(a, 1, bytes);
    if (!p->data) {
        g4_free(a, p);
        return NULL;
    }
    atomic_init(&p->refs, 1);
    return p;
}

static void g4_page_release(const g4_allocator *a, g4_page *p)
{
    if (atomic_fetch_sub(&p->refs, 1) > 1) return;
    g4_free(a, p->data);
    g4_free(a, p);
}

static void g4_cache_shape(g4_cache *c, g4_kv_type type, const g4_kv_shape *shape)
{
    const size_t values = (size_t)shape->head_dim * G4_PAGE * g4_kv_size(type);
    const size_t scales = type == G4_KV_Q8_0 ? 2 * G4_PAGE * sizeof(float) : 0;
    c->shape = *shape;
    c->head_bytes = g4_round_up(2 * values + scales, 64);
    c->page_bytes = (size_t)shape->n_heads * c->head_bytes;
}

static void g4_cache_truncate(const g4_kv *kv, g4_cache *c, int n)
{
    const int end = (n + G4_PAGE - 1) / G4_PAGE;
    while (c->end > end && c->end > c->first) {
        g4_page_release(kv->a, c->pages[--c->end]);
        c->pages[c->end] = NULL;
    }
    if (c->end > end || c->first > end) c->first = c->end = end;
}

static int g4_cache_reserve(const g4_kv *kv, g4_cache *c, int pos, int n)
{
    for (int page = pos / G4_PAGE; page <= (pos + n - 1) / G4_PAGE; page++) {
        if (page >= c->end) {
            if (!(c->pages[page] = g4_page_open(kv->a, c->page_bytes))) return 0;
            if (c->end == c->first) c->first = page;
            c->end = page + 1;
        } else if (c->pages[page]->forked && c->pages[page]->refs > 1) {
            g4_page *copy = g4_page_open(kv->a, c->page_bytes);
            if (!copy) return 0;
            memcpy(copy->data, c->pages[page]->data, c->page_bytes);
            g4_page_release(kv->a, c->pages[page]);
            c->pages[page] = copy;
        }
    }
    return 1;
}

/* ---- A timeline's keys and values ------------------------------------------------------------------ */

int g4_kv_open(g4_kv *kv, const g4_allocator *a, g4_kv_type type, const g4_kv_shape *shapes, int n, int n_ctx,
               size_t partial_floats)
{
    *kv = (g4_kv) { .a = a, .type = type, .n_caches = n, .partial_floats = partial_floats };
    kv->caches = g4_alloc(a, (size_t)n, sizeof *kv->caches);
    kv->partial = g4_alloc(a, partial_floats, sizeof *kv->partial);
    int ok = kv->caches && kv->partial;
    for (int i = 0; i < n && ok; i++) {
        g4_cache *c = &kv->caches[i];
        g4_cache_shape(c, type, &shapes[i]);
        c->pages = g4_alloc(a, (size_t)n_ctx / G4_PAGE + 1, sizeof(g4_page *));
        ok = c->pages != NULL;
    }
    if (!ok) g4_kv_close(kv);
    return ok;
}

void g4_kv_close(g4_kv *kv)
{
    for (int i = 0; kv->caches && i < kv->n_caches; i++) {
        g4_cache *c = &kv->caches[i];
        for (int p = c->first; p < c->end; p++) g4_page_release(kv->a, c->pages[p]);
        g4_free(kv->a, c->pages);
    }
    g4_free(kv->a, kv->caches);
    g4_free(kv->a, kv->partial);
    memset(kv, 0, sizeof *kv);
}

uint64_t g4_kv_bytes(g4_kv_type type, const g4_kv_shape *shapes, int n, int n_ctx, int chunk)
{
    uint64_t bytes = 0;
    for (int i = 0; i < n; i++) {
        g4_cache c;
        g4_cache_shape(&c, type, &shapes[i]);
        const int window = shapes[i].window;
        const int held = window ? g4_min_int(n_ctx, window + chunk + 2 * G4_PAGE) : n_ctx;
        bytes += (uint64_t)(held / G4_PAGE + 1) * c.page_bytes;
    }
    return bytes;
}

void g4_kv_truncate(g4_kv *kv, int n)
{
    for (int i = 0; i < kv->n_caches; i++) g4_cache_truncate(kv, &kv->caches[i], n);
}

int g4_kv_reserve(g4_kv *kv, int pos, int n)
{
    const int end = kv->caches[0].end;
    for (int i = 0; i < kv->n_caches; i++) {
        if (g4_cache_reserve(kv, &kv->caches[i], pos, n)) continue;
        for (int j = 0; j <= i; j++) g4_cache_truncate(kv, &kv->caches[j], end * G4_PAGE);
        return 0;
    }
    return 1;
}

int g4_kv_hold(g4_kv *kv, int cache, int page)
{
    g4_cache *c = &kv->caches[cache];
    if (c->first == c->end) c->first = c->end = page;
    if (!(c->pages[page] = g4_page_open(kv->a, c->page_bytes))) return 0;
    c->end = page + 1;
    return 1;
}

void g4_kv_copy_page(const g4_kv *kv, int cache, int page, int n, unsigned char *out)
{
    const g4_cache *c = &kv->caches[cache];
    const size_t size = g4_kv_size(kv->type), dim = (size_t)c->shape.head_dim, lanes = (size_t)n,
                 rest = G4_PAGE - lanes;
    memcpy(out, c->pages[page]->data, c->page_bytes);
    for (int h = 0; h < c->shape.n_heads; h++, out += c->head_bytes) {
        unsigned char *values = out + dim * G4_PAGE * size, *scales = values + dim * G4_PAGE * size;
        for (size_t d = 0; d < dim; d++) memset(out + (d * G4_PAGE + lanes) * size, 0, rest * size);
        memset(values + lanes * dim * size, 0, rest * dim * size);
        for (size_t k = 0; k < 2 && kv->type == G4_KV_Q8_0; k++)
            memset(scales + (k * G4_PAGE + lanes) * sizeof(float), 0, rest * sizeof(float));
    }
}

void g4_kv_slide(g4_kv *kv, int n)
{
    for (int i = 0; i < kv->n_caches; i++) {
        g4_cache *c = &kv->caches[i];
        if (!c->shape.window) continue;
        const int keep = g4_window_start(n, c->shape.window) / G4_PAGE - 1;
        for (; c->first < keep && c->first < c->end; c->first++) {
            g4_page_release(kv->a, c->pages[c->first]);
            c->pages[c->first] = NULL;
        }
    }
}

int g4_kv_holds(const g4_kv *kv, int n)
{
    for (int i = 0; i < kv->n_caches; i++) {
        const g4_cache *c = &kv->caches[i];
        if (c->shape.window && c->first * G4_PAGE > g4_window_start(n, c->shape.window)) return 0;
    }
    return 1;
}

uint64_t g4_kv_held(const g4_kv *kv)
{
    uint64_t bytes = 0;
    for (int i = 0; i < kv->n_caches; i++)
        bytes += (uint64_t)(kv->caches[i].end - kv->caches[i].first) * kv->caches[i].page_bytes;
    return bytes;
}

void g4_kv_fork(g4_kv *to, const g4_kv *from)
{
    for (int i = 0; i < from->n_caches; i++) {
        const g4_cache *c = &from->caches[i];
        to->caches[i].first = c->first;
        to->caches[i].end = c->end;
        for (int p = c->first; p < c->end; p++) {
            to->caches[i].pages[p] = c->pages[p];
            atomic_fetch_add(&c->pages[p]->refs, 1);
            atomic_store(&c->pages[p]->forked, 1);
        }
    }
}

/* ---- Reading and writing ----------------------------------------------------------------------------- */

g4_kv_tile g4_kv_read(const g4_kv *kv, int cache, int page, int head)
{
    const g4_cache *c = &kv->caches[cache];
    const size_t offset = (size_t)head * c->head_bytes;
    const size_t values = (size_t)c->shape.head_dim * G4_PAGE * g4_kv_size(kv->type);
    const unsigned char *p = c->pages[page]->data + offset;
    const float *scales = kv->type == G4_KV_Q8_0 ? (const float *)(const void *)(p + 2 * values) : NULL;
    const unsigned char *next = page + 1 < c->end ? c->pages[page + 1]->data + offset : NULL;
    return (g4_kv_tile) { p, p + values, scales, scales ? scales + G4_PAGE : NULL, next };
}

static float g4_magnitude(const float *x, int n)
{
    float largest = 0;
    for (int i = 0; i < n; i++) largest = fmaxf(largest, fabsf(x[i]));
    return largest;
}

/* n values as q = round(x * 127 / max|x|), `step` apart; returns their scale, max|x| / 127. */
static float g4_kv_store_q8(int8_t *q, int step, const float *x, int n)
{
    const float largest = g4_magnitude(x, n), inverse = largest >= G4_QUANT_MIN ? 127.0f / largest : 0;
    for (int i = 0; i < n; i++) q[i * step] = g4_to_int8(x[i] * inverse);
    return largest / 127.0f;
}

void g4_kv_store(g4_kv *kv, int cache, int pos, const float *k, const float *v)
{
    const g4_cache *c = &kv->caches[cache];
    const int lane = pos % G4_PAGE, dim = c->shape.head_dim;
    const size_t values = (size_t)dim * G4_PAGE * g4_kv_size(kv->type);
    for (int h = 0; h < c->shape.n_heads; h++, k += dim, v += dim) {
        void *keys = c->pages[pos / G4_PAGE]->data + (size_t)h * c->head_bytes;
        void *vals = (unsigned char *)keys + values;
        if (kv->type == G4_KV_F16) {
            uint16_t *k16 = (uint16_t *)keys + lane, *v16 = (uint16_t *)vals + lane * dim;
            for (int d = 0; d < dim; d++) k16[d * G4_PAGE] = g4_f32_to_f16(k[d]);
            for (int d = 0; d < dim; d++) v16[d] = g4_f32_to_f16(v[d]);
        } else if (kv->type == G4_KV_F32) {
            float *k32 = (float *)keys + lane;
            for (int d = 0; d < dim; d++) k32[d * G4_PAGE] = k[d];
            memcpy((float *)vals + lane * dim, v, (size_t)dim * sizeof *v);
        } else {
            float *scales = (float *)(void *)((unsigned char *)vals + values);
            scales[lane] = g4_kv_store_q8((int8_t *)keys + lane, G4_PAGE, k, dim);
            scales[G4_PAGE + lane] = g4_kv_store_q8((int8_t *)vals + lane * dim, 1, v, dim);
        }
    }
}

/* ---- Snapshots ------------------------------------------------------------------------------------- */

static int g4_snapshot_has(const g4_kv_snapshot *snapshot, const g4_cache *c)
{
    return snapshot->has_all || c->shape.window > 0;
}

/* Room for references to so many pages; one block holds the three arrays. */
static int g4_snapshot_alloc(const g4_kv *kv, g4_kv_snapshot *out, int n_pages, int has_all)
{
    const size_t ints = g4_round_up(2 * (size_t)kv->n_caches, 2);
    int *block = g4_alloc(kv->a, 1, ints * sizeof *block + (size_t)n_pages * sizeof(g4_page *));
    *out = (g4_kv_snapshot) { .has_all = has_all };
    if (!block) return 0;
    *out = (g4_kv_snapshot) { n_pages, has_all, block, block + kv->n_caches, (g4_page **)(void *)(block + ints) };
    return 1;
}

/* References to the pages of sliding layers, or of all. */
static int g4_snapshot_open(const g4_kv *kv, g4_kv_snapshot *out, int has_all)
{
    int n_pages = 0, taken = 0;
    *out = (g4_kv_snapshot) { .has_all = has_all };
    for (int i = 0; i < kv->n_caches; i++)
        if (g4_snapshot_has(out, &kv->caches[i])) n_pages += kv->caches[i].end - kv->caches[i].first;
    if (!g4_snapshot_alloc(kv, out, n_pages, has_all)) return 0;
    for (int i = 0; i < kv->n_caches; i++) {
        const g4_cache *c = &kv->caches[i];
        if (!g4_snapshot_has(out, c)) continue;
        out->first[i] = c->first;
        out->count[i] = c->end - c->first;
        for (int p = c->first; p < c->end; p++) {
            atomic_fetch_add(&c->pages[p]->refs, 1);
            out->pages[taken++] = c->pages[p];
        }
    }
    return 1;
}

int g4_kv_snapshot_take(const g4_kv *kv, g4_kv_snapshot *out)
{
    if (!g4_snapshot_open(kv, out, 0)) return 0;
    for (int p = 0; p < out->n_pages; p++) atomic_fetch_add(&out->pages[p]->snapshot_refs, 1);
    return 1;
}

int g4_kv_snapshot_copy(const g4_kv *kv, const g4_kv_snapshot *from, g4_kv_snapshot *out)
{
    if (!g4_snapshot_alloc(kv, out, from->n_pages, from->has_all)) return 0;
    memcpy(out->first, from->first, (size_t)kv->n_caches * sizeof *out->first);
    memcpy(out->count, from->count, (size_t)kv->n_caches * sizeof *out->count);
    for (int p = 0; p < from->n_pages; p++) {
        out->pages[p] = from->pages[p];
        atomic_fetch_add(&out->pages[p]->refs, 1);
        atomic_fetch_add(&out->pages[p]->snapshot_refs, 1);
    }
    return 1;
}

void g4_kv_snapshot_protect(const g4_kv *kv, const g4_kv_snapshot *snapshot, int from)
{
    int taken = 0;
    for (int i = 0; i < kv->n_caches; i++)
        for (int p = 0; p < snapshot->count[i]; p++, taken++)
            if (snapshot->first[i] + p >= from / G4_PAGE) atomic_store(&snapshot->pages[taken]->forked, 1);
}

int g4_kv_snapshot_take_all(const g4_kv *kv, int from, g4_kv_snapshot *out)
{
    if (!g4_snapshot_open(kv, out, 1)) return 0;
    g4_kv_snapshot_protect(kv, out, from);
    return 1;
}

void g4_kv_snapshot_restore(g4_kv *kv, const g4_kv_snapshot *snapshot, int pos)
{
    int taken = 0;
    for (int i = 0; i < kv->n_caches; i++) {
        g4_cache *c = &kv->caches[i];
        if (!g4_snapshot_has(snapshot, c)) {
            g4_cache_truncate(kv, c, pos);
            continue;
        }
        g4_cache_truncate(kv, c, 0);
        c->first = snapshot->first[i];
        c->end = snapshot->first[i] + snapshot->count[i];
        for (int p = c->first; p < c->end; p++) {
            c->pages[p] = snapshot->pages[taken++];
            atomic_fetch_add(&c->pages[p]->refs, 1);
        }
    }
}

void g4_kv_snapshot_drop(const g4_kv *kv, g4_kv_snapshot *snapshot)
{
    for (int p = 0; p < snapshot->n_pages; p++) {
        if (!snapshot->has_all) atomic_fetch_sub(&snapshot->pages[p]->snapshot_refs, 1);
        g4_page_release(kv->a, snapshot->pages[p]);
    }
    g4_free(kv->a, snapshot->first);
    memset(snapshot, 0, sizeof *snapshot);
}

uint64_t g4_kv_snapshot_bytes(const g4_kv *kv, const g4_kv_snapshot *snapshot)
{
    uint64_t bytes = 0;
    int taken = 0;
    for (int i = 0; i < kv->n_caches; i++)
        for (int p = 0; p < snapshot->count[i]; p++) {
            g4_page *page = snapshot->pages[taken++];
            const int refs = atomic_load(&page->snapshot_refs);
            if (refs > 0 && atomic_load(&page->refs) == refs) bytes += kv->caches[i].page_bytes / (uint64_t)refs;
        }
    return bytes;
}
