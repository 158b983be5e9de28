/* compute.h - the floor of what a model calls and does not implement: products of matrices on all threads (matmul.c),
 * keys and values (cache.c), attention over them (attend.c), soft tokens (soft.c). */
#ifndef GEMMA4_COMPUTE_H
#define GEMMA4_COMPUTE_H

#include "parts.h"

/* ---- Products (matmul.c) -------------------------------------------------------------------------- */

/* Rows of int8 and scales whose sum is what is multiplied where activations are static. */
#define G4_PARTS 3

/* What computes: a kernel table, the threads, and room for each of them. One per engine, used under its lock. */
typedef struct {
    const g4_kernels *kernels;
    g4_pool *pool;
    const g4_file *file;  /* whose matrices these are */
    const g4_taps *watch; /* in a pass whose caller wants to see what matrices are multiplied with; else NULL */
    int reads_ints;       /* some matrix of the file reads integers: rows that are ready are rounded too */
    float *room;          /* (threads, room_floats): what a worker may write while it runs a piece */
    size_t room_floats;
    g4_acts parts[G4_PARTS]; /* with static activations: (rows of a pass, its widest activations) */
} g4_compute;
#define G4_ROOM_FLOATS (64 * 128) /* floats of room that products need */
static inline float *g4_room(const g4_compute *c, const g4_task *task)
{
    return c->room + (size_t)task->worker * c->room_floats;
}

/* Rows of `cols` columns, padded to G4_MAX_STEP_COLS with zeros; with integers beside them where reads_ints says so. */
g4_acts g4_acts_open(g4_blocks *b, size_t rows, int cols, int reads_ints);
/* The same memory seen as rows of fewer columns. Strides follow the width, so that a row is one unbroken piece. */
g4_acts g4_acts_as(const g4_acts *a, int cols);
static inline float *g4_acts_row(const g4_acts *a, int row) { return a->x + (size_t)row * a->x_stride; }
/* Row is complete in its first `cols` columns: clear its padding and round it, so that it can be multiplied. */
void g4_acts_ready(const g4_compute *c, const g4_acts *a, int row, int cols);
void g4_acts_ready_rows(const g4_compute *c, const g4_acts *a, int first, int end, int cols);

/* x (n) = clamp(round(x / scale), -128, 127) * scale; scale 0: nothing (static.c). */
void g4_static_round(float *x, size_t n, float scale);
/* Row `row` of the parts whose sum is that of x (64 * steps of the parts), or with scale 0 x itself. Returns how many
 * parts there are. */
int g4_static_parts(const g4_kernels *kernels, const g4_acts parts[G4_PARTS], int row, const float *x, float scale);

/* y[r] = W x[r] for rows [first, end) of x. */
typedef struct {
    const g4_matrix *w; /* absent (data is NULL): nothing is done */
    float *y;           /* (rows, stride), from row 0 on; has room for outputs padded to 16 */
    size_t stride;
    int first, end;
    int groups; /* of 16 outputs: the first so many, or, with `which`, so many of that list; 0: all */
    const int *which;
    void (*then)(void *user, int group); /* NULL, or called with each finished group, while it is in cache */
    void *user;
} g4_product;
#define G4_MAX_PRODUCTS 3
/* Up to G4_MAX_PRODUCTS products that read the same x, in one job. */
void g4_matmul(const g4_compute *c, const g4_product *p, int n, const g4_acts *x);

/* Show the caller rows [first, end) of x, which matrix w is multiplied with. The functions of this floor do it. */
void g4_inputs_show(const g4_compute *c, const g4_matrix *w, const g4_acts *x, int first, int end);

/* Rows [first, end) of activations and the matrix of a stack that multiplies them: an expert's rows, or all. */
typedef struct {
    int matrix, first, end;
} g4_share;
/* y[r] = W x[r] for the rows of each share. A plain matrix is a stack of one. */
void g4_matmul_shares(const g4_compute *c, float *y, size_t stride, const g4_stack *w, const g4_acts *x,
                      const g4_share *shares, int n);
/* h[r][i] = gelu(gate row i . x[r]) * (up row i . x[r]) for the rows of each share; w holds gate and up in alternating
 * groups, so that both are in cache together. */
void g4_matmul_geglu(const g4_compute *c, const g4_acts *h, const g4_stack *w, const g4_acts *x, const g4_share *shares,
                     int n);

/* ---- Keys and values (cache.c) --------------------------------------------------------------------
 *
 * Pages of 64 positions, one per owning layer, with counted references. A full layer holds all pages of the timeline, a
 * sliding layer those that its window (and one page more, for going back a little) can reach. Inside a page, per KV
 * head: K transposed (head_dim, 64), V (64, head_dim), and for q8_0 one scale per position for each. Timelines on
 * several threads may hold the same page; each counts its own references, and none writes what another one reads. */

#define G4_SPAN 256 /* positions after which partial results of attention are combined: a long context is split there */

typedef struct {
    atomic_int refs;          /* timelines, snapshots and calls in progress that hold it */
    atomic_int snapshot_refs; /* snapshots among them */
    atomic_int forked;        /* who else holds it reads all of it: copy before writing while refs > 1 */
    unsigned char *data;      /* (page_bytes) */
} g4_page;

typedef struct { /* what a layer that owns keys and values keeps of a position */
    int window;  /* 0: full */
    int n_heads, head_dim;
} g4_kv_shape;

typedef struct { /* the cache of one owning layer */
    g4_kv_shape shape;
    size_t head_bytes, page_bytes;
    int first, end;  /* pages held: [first, end); all caches of a timeline end alike */
    g4_page **pages; /* (n_ctx / 64 + 1) */
} g4_cache;

typedef struct { /* keys and values of one timeline */
    const g4_allocator *a;
    g4_kv_type type;
    int n_caches;
    g4_cache *caches; /* (n_caches), in the order of the owning layers */
    float *partial;   /* room for attention split over spans: one row's queries at full depth */
    size_t partial_floats, partial_used;
} g4_kv;

/* The pages of sliding layers as they were at a position, to return to it; full layers keep theirs. Or those of all
 * layers, which then may be overwritten. */
typedef struct {
    int n_pages, has_all;
    int *first;      /* (n_caches): first page of each sliding layer */
    int *count;      /* (n_caches): pages of each */
    g4_page **pages; /* (n_pages) */
} g4_kv_snapshot;

/* Tables for up to n_ctx positions, no pages. On failure returns 0 and kv is closed. */
int g4_kv_open(g4_kv *kv, const g4_allocator *a, g4_kv_type type, const g4_kv_shape *shapes, int n, int n_ctx,
               size_t partial_floats);
void g4_kv_close(g4_kv *kv); /* releases its pages */
/* Bytes of the pages for n_ctx positions at most, evaluated in chunks of that many. */
uint64_t g4_kv_bytes(g4_kv_type type, const g4_kv_shape *shapes, int n, int n_ctx, int chunk);

/* Pages for positions [pos, pos + n) that this timeline alone may write. Returns 0 when memory is out; then it holds
 * what it held. */
int g4_kv_reserve(g4_kv *kv, int pos, int n);
/* Drop the pages that only positions from n on need. */
void g4_kv_truncate(g4_kv *kv, int n);
/* With n positions evaluated, let go of what sliding windows have left behind, but for one page: going back a few
 * positions then costs nothing. */
void g4_kv_slide(g4_kv *kv, int n);
/* First position that a sliding layer shows to the last of n positions. */
static inline int g4_window_start(int n, int window) { return g4_max_int(0, n - window); }
/* Do the windows still hold what the last of n positions saw? */
int g4_kv_holds(const g4_kv *kv, int n);
uint64_t g4_kv_held(const g4_kv *kv); /* bytes of its pages */
/* `to`, which is empty, holds the same pages. */
void g4_kv_fork(g4_kv *to, const g4_kv *from);
/* An empty page for a cache that has none, or behind its last, to be filled by the caller. Returns 0 when memory is
 * out. */
int g4_kv_hold(g4_kv *kv, int cache, int page);
/* A page into out (page_bytes), without what stands behind its first n positions. */
void g4_kv_copy_page(const g4_kv *kv, int cache, int page, int n, unsigned char *out);

/* Write the keys (n_heads, head_dim) and values of one position. */
void g4_kv_store(g4_kv *kv, int cache, int pos, const float *k, const float *v);
/* Keys and values of one head in one page. */
g4_kv_tile g4_kv_read(const g4_kv *kv, int cache, int page, int head);

int g4_kv_snapshot_take(const g4_kv *kv, g4_kv_snapshot *out); /* 0 when memory is out */
/* One more of the same pages, also for another timeline of the same model; likewise. */
int g4_kv_snapshot_copy(const g4_kv *kv, const g4_kv_snapshot *from, g4_kv_snapshot *out);
/* The pages of all layers. What is written at position `from` or behind it goes to copies from now on. */
int g4_kv_snapshot_take_all(const g4_kv *kv, int from, g4_kv_snapshot *out);
/* What is written at position `from` or behind it leaves the snapshot's pages alone from now on. */
void g4_kv_snapshot_protect(const g4_kv *kv, const g4_kv_snapshot *snapshot, int from);
/* Put the snapshot's pages in place of the present ones and drop everything from position pos on. */
void g4_kv_snapshot_restore(g4_kv *kv, const g4_kv_snapshot *snapshot, int pos);
void g4_kv_snapshot_drop(const g4_kv *kv, g4_kv_snapshot *snapshot);
/* Bytes of the pages that only snapshots hold, those of this one; a page held by k snapshots counts a k-th in each. */
uint64_t g4_kv_snapshot_bytes(const g4_kv *kv, const g4_kv_snapshot *snapshot);

/* ---- Attention (attend.c) --------------------------------------------------------------------------- */

typedef struct { /* what one row asks of the keys and values of its timeline */
    g4_kv *kv;
    const float *q; /* (n_kv_heads * group, head_dim), after norm, RoPE and scale */
    float *out;     /* the same shape: softmax(q . keys) values */
    int first, end; /* positions it sees: [first, end) */
} g4_query;

typedef struct { /* queries of one timeline, side by side, that are attended together */
    int first, end;
    int first_span, n_spans; /* spans of positions that any of them sees */
    int first_piece;         /* if each span is a piece of its own, its first, ... */
    float *partial;          /* ... and where the results of the spans wait */
} g4_unit;

/* Answer n queries from the cache with that index; `group` query heads read each key/value head. units (n): scratch.
 * What a query gets does not depend on the queries beside it. */
void g4_attend_queries(const g4_compute *c, const g4_query *queries, int n, int cache, int n_kv_heads, int group,
                       int head_dim, g4_unit *units);
size_t g4_attend_room_floats(int head_dim); /* Floats of compute->room that attention needs. */
/* Floats of g4_kv.partial for one query split over the spans of n_ctx positions. */
size_t g4_attend_partial_floats(int n_ctx, int n_heads, int head_dim);
/* (M, L, O) of one query head += (m, l, o) of its next span: the largest score, the sum of exponentials, and the
 * weighted sum of values (dim). */
void g4_attend_merge(float *M, float *L, float *O, float m, float l, const float *o, int dim);

/* ---- Soft tokens (soft.c) --------------------------------------------------------------------------- */

struct g4_soft { /* what a tower makes of a picture, a frame or a block of sound; does not change once it is filled */
    const g4_allocator *a;
    atomic_int refs;
    g4_token token;  /* its placeholder id */
    uint64_t key[2]; /* hash of the decoded data, kind, budget: equal keys are equal pictures */
    int n;           /* soft tokens */
    size_t hidden;   /* of the model they are for */
    float *rows;     /* (n, hidden) */
};
g4_soft *g4_soft_new(const g4_allocator *a, g4_token token, const uint64_t key[2], int n, size_t hidden); /* or NULL */
void g4_soft_retain(g4_soft *soft);
void g4_soft_release(g4_soft *soft); /* frees it with the last reference; NULL is fine */
/* Mix `size` bytes of decoded data into a key. Not against an attacker: against one picture answered with another. */
void g4_soft_hash(uint64_t key[2], const void *data, size_t size);

#define G4_SOFT_SLOTS 256 /* pictures and sounds whose soft tokens an engine remembers */
typedef struct {          /* the latest pictures and sounds, the latest last; one reference each. Used under a lock */
    g4_soft *slots[G4_SOFT_SLOTS];
    int n;
} g4_soft_cache;
g4_soft *g4_soft_cache_find(g4_soft_cache *c, const uint64_t key[2]); /* with one more reference, or NULL */
void g4_soft_cache_add(g4_soft_cache *c, g4_soft *soft);
void g4_soft_cache_close(g4_soft_cache *c);

#endif /* GEMMA4_COMPUTE_H */
