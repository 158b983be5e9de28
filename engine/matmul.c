/* matmul.c - the one way in which the matrices of the text decoder are multiplied: rows of activations are made ready
 * once, products are cut into pieces, and every piece is one call of a kernel. How many groups a piece holds depends on
 * rows and threads; an output lies whole in one piece, so its value does not.
 *
 * A piece is some groups of 16 outputs for all rows, so that its weights are read once and its inputs stay in cache. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "compute.h"

#define G4_TILE_ROWS 64      /* rows whose gate and up values stay in cache together, ... */
#define G4_TILE_GROUPS 8     /* ... and groups of their matrix */
#define G4_PIECE_BYTES 65536 /* weights of a piece: some microseconds of reading, far above the cost of a hand-out */
#define G4_PIECES_PER_THREAD 16
_Static_assert(G4_TILE_ROWS * 16 * G4_TILE_GROUPS <= G4_ROOM_FLOATS, "a tile of gate and up values fits in the room");

/* ---- Activations ------------------------------------------------------------------------------------- */

/* Any type's steps cover a row: it is padded to the longest. */
static g4_acts g4_acts_of(int cols)
{
    g4_acts a = { .x_stride = g4_round_up((size_t)cols, G4_MAX_STEP_COLS) };
    a.steps = (int)(a.x_stride / 64);
    return a;
}

g4_acts g4_acts_open(g4_blocks *b, size_t rows, int cols, int reads_ints)
{
    g4_acts a = g4_acts_of(cols);
    const size_t steps = (size_t)a.steps;
    a.x = g4_blocks_add(b, rows, a.x_stride, sizeof *a.x);
    if (reads_ints) {
        a.q = g4_blocks_add(b, rows, a.x_stride, sizeof *a.q);
        a.d = g4_blocks_add(b, rows, 2 * steps, sizeof *a.d);
        a.sum = g4_blocks_add(b, rows, 4 * steps, sizeof *a.sum);
    }
    return a;
}

g4_acts g4_acts_as(const g4_acts *a, int cols)
{
    g4_acts view = g4_acts_of(cols);
    view.x = a->x, view.q = a->q, view.d = a->d, view.sum = a->sum;
    return view;
}

void g4_acts_ready(const g4_compute *c, const g4_acts *a, int row, int cols)
{
    float *x = g4_acts_row(a, row);
    const size_t steps = (size_t)a->steps, r = (size_t)row;
    memset(x + cols, 0, (a->x_stride - (size_t)cols) * sizeof *x);
    if (c->reads_ints)
        c->kernels->quantize(a->q + r * 64 * steps, a->d + r * 2 * steps, a->sum + r * 4 * steps, x, (int)a->x_stride);
}

typedef struct {
    const g4_compute *c;
    const g4_acts *a;
    int first, cols;
} g4_ready_job;

static void g4_ready_row(const g4_task *task, int piece)
{
    const g4_ready_job *job = task->job;
    g4_acts_ready(job->c, job->a, job->first + piece, job->cols);
}

void g4_acts_ready_rows(const g4_compute *c, const g4_acts *a, int first, int end, int cols)
{
    g4_ready_job job = { c, a, first, cols };
    g4_parallel_for(c->pool, end - first, g4_ready_row, &job);
}

/* ---- Inputs are shown ----------------------------------------------------------------------------------- */

/* The tensor whose bytes hold this one; there is one for every matrix. */
static const g4_tensor_entry *g4_tensor_at(const g4_file *f, uint64_t offset)
{
    const g4_tensor_entry *t = f->table;
    while (offset < t->offset || offset >= t->offset + t->size) t++;
    return t;
}

void g4_inputs_show(const g4_compute *c, const g4_matrix *w, const g4_acts *x, int first, int end)
{
    if (!c->watch || !w->data || first >= end || g4_pool_halted(c->pool)) return;
    const uint64_t offset = (uint64_t)(w->data - c->file->data);
    const g4_tensor_entry *t = g4_tensor_at(c->file, offset);
    const g4_inputs in = { .name = t->name,
                           .matrix = t->n_dims == 3 ? (int)((offset - t->offset) / (t->size / t->dims[0])) : 0,
                           .n_rows = end - first,
                           .n_cols = w->cols,
                           .stride = x->x_stride,
                           .values = g4_acts_row(x, first) };
    c->watch->inputs(c->watch->user, &in);
}

static void g4_inputs_show_shares(const g4_compute *c, const g4_stack *w, const g4_acts *x, const g4_share *shares,
                                  int n)
{
    for (int i = 0; i < n && c->watch; i++) {
        g4_matrix m = w->first;
        m.data += (size_t)shares[i].matrix * w->bytes;
        g4_inputs_show(c, &m, x, shares[i].first, shares[i].end);
    }
}

/* ---- Products with static activations ----------------------------------------------------------------------
 *
 * One product after the other: what a row is rounded to belongs to the matrix. */

typedef struct {
    const g4_compute *c;
    const g4_product *p;
    const g4_acts *x;
    g4_acts parts[G4_PARTS]; /* what is multiplied in its place, in the width of x; ... */
    atomic_int n_parts;      /* ... so many of them in any row */
    int per_piece;
} g4_static_job;

/* Float types multiply the first part as float32. */
static int g4_is_float_matrix(const g4_matrix *w) { return g4_type_get(w->type)->reads == G4_READS_FLOAT; }

static void g4_static_row(const g4_task *task, int piece)
{
    g4_static_job *job = task->job;
    const int row = job->p->first + piece;
    const float *x = g4_acts_row(job->x, row), scale = job->p->w->act[0];
    if (g4_is_float_matrix(job->p->w)) {
        float *to = memcpy(g4_acts_row(&job->parts[0], row), x, job->x->x_stride * sizeof *x);
        g4_static_round(to, job->x->x_stride, scale);
        return;
    }
    const int n = g4_static_parts(job->c->kernels, job->parts, row, x, scale);
    if (n > 1) atomic_store(&job->n_parts, n); /* all that store one store the same */
}

/* Groups [g0, g1) for rows [r0, r1) of at most a tile: the parts' products in turn, then rounded. */
static void g4_static_tile(const g4_static_job *job, float *tile, int r0, int r1, int g0, int g1)
{
    const g4_product *p = job->p;
    const g4_gemm_fn gemm = job->c->kernels->gemm[p->w->type];
    const size_t width = 16 * (size_t)(g1 - g0);
    float *y = p->y + (size_t)r0 * p->stride + 16 * (size_t)g0;
    const int n_parts = atomic_load(&job->n_parts);
    gemm(y, p->stride, p->w, &job->parts[0], r0, r1, g0, g1);
    for (int k = 1; k < n_parts; k++) {
        gemm(tile, width, p->w, &job->parts[k], r0, r1, g0, g1);
        for (size_t r = 0; r < (size_t)(r1 - r0); r++)
            for (size_t i = 0; i < width; i++) y[r * p->stride + i] += tile[r * width + i];
    }
    for (int r = r0; r < r1; r++, y += p->stride) g4_static_round(y, width, p->w->act[1]);
}

static void g4_static_groups(const g4_static_job *job, float *tile, int first, int end)
{
    for (int r = job->p->first; r < job->p->end; r += G4_TILE_ROWS)
        for (int g = first; g < end; g += G4_TILE_GROUPS)
            g4_static_tile(job, tile, r, g4_min_int(r + G4_TILE_ROWS, job->p->end), g,
                           g4_min_int(g + G4_TILE_GROUPS, end));
    for (int g = first; job->p->then && g < end; g++) job->p->then(job->p->user, g);
}

static int g4_product_n_groups(const g4_product *p) { return p->groups ? p->groups : p->w->groups; }

static void g4_static_piece(const g4_task *task, int piece)
{
    const g4_static_job *job = task->job;
    const g4_product *p = job->p;
    const int first = piece * job->per_piece, end = g4_min_int(first + job->per_piece, g4_product_n_groups(p));
    float *tile = g4_room(job->c, task);
    if (!p->which) g4_static_groups(job, tile, first, end);
    for (int k = first; p->which && k < end; k++) g4_static_groups(job, tile, p->which[k], p->which[k] + 1);
}

/* y = round(W round(x)) */
static void g4_static_product(const g4_compute *c, const g4_product *p, const g4_acts *x)
{
    g4_static_job job = { .c = c, .p = p, .x = x, .per_piece = G4_TILE_GROUPS };
    const int pieces = (g4_product_n_groups(p) + job.per_piece - 1) / job.per_piece;
    atomic_init(&job.n_parts, 1);
    for (int i = 0; i < G4_PARTS; i++) job.parts[i] = g4_acts_as(&c->parts[i], (int)x->x_stride);
    g4_parallel_for(c->pool, p->end - p->first, g4_static_row, &job);
    g4_parallel_for(c->pool, pieces, g4_static_piece, &job);
}

typedef struct {
    const g4_compute *c;
    const g4_acts *h, *up;
    int first, cols;
} g4_static_geglu_job;

static void g4_static_geglu_row(const g4_task *task, int piece)
{
    const g4_static_geglu_job *job = task->job;
    float *h = g4_acts_row(job->h, job->first + piece);
    job->c->kernels->geglu(h, h, g4_acts_row(job->up, job->first + piece), job->cols);
}

/* h = gelu(gate x) * (up x) for all rows of a share. Gate and up are every other group of w, of which kernels take the
 * way to the next group for its size where they choose strips, and have scales of their own; up's values wait where the
 * last part has room for floats. */
static void g4_static_geglu(const g4_compute *c, const g4_acts *h, const g4_matrix *w, const g4_acts *x,
                            const g4_share *share)
{
    g4_matrix gate = *w;
    gate.groups /= 2, gate.group_bytes *= 2;
    g4_matrix up = gate;
    up.data += w->group_bytes, up.act += 2;
    g4_acts up_values = c->parts[G4_PARTS - 1];
    up_values.x_stride = h->x_stride;
    const g4_product products[] = {
        { .w = &gate, .y = h->x, .stride = h->x_stride, .first = share->first, .end = share->end },
        { .w = &up, .y = up_values.x, .stride = h->x_stride, .first = share->first, .end = share->end }
    };
    for (int i = 0; i < 2; i++) g4_static_product(c, &products[i], x);
    g4_static_geglu_job job = { c, h, &up_values, share->first, 16 * gate.groups };
    g4_parallel_for(c->pool, share->end - share->first, g4_static_geglu_row, &job);
}

/* ---- Products of the same inputs ----------------------------------------------------------------------- */

/* Groups of a matrix in one piece. Many rows: more, because a piece prepares its inputs once for all its groups, but
 * every thread has some pieces. */
static int g4_piece_groups(const g4_compute *c, const g4_matrix *w, int rows)
{
    const int few = g4_max_int(1, (int)(G4_PIECE_BYTES / w->group_bytes));
    if (rows < G4_TILE_ROWS) return few;
    const int share = w->groups / (G4_PIECES_PER_THREAD * g4_pool_size(c->pool));
    return g4_max_int(few, g4_min_int(G4_TILE_GROUPS, share));
}

typedef struct {
    const g4_compute *c;
    const g4_acts *x;
    int n;
    struct {
        const g4_product *p;
        int groups, per_piece, first_piece;
    } part[G4_MAX_PRODUCTS];
} g4_matmul_job;

/* Groups [first, end) of a product. */
static void g4_product_groups(const g4_matmul_job *job, const g4_product *p, int first, int end)
{
    float *y = p->y + (size_t)p->first * p->stride + 16 * (size_t)first;
    job->c->kernels->gemm[p->w->type](y, p->stride, p->w, job->x, p->first, p->end, first, end);
    for (int g = first; p->then && g < end; g++) p->then(p->user, g);
}

static void g4_matmul_piece(const g4_task *task, int piece)
{
    const g4_matmul_job *job = task->job;
    int i = job->n - 1;
    while (piece < job->part[i].first_piece) i--;
    const g4_product *p = job->part[i].p;
    const int first = (piece - job->part[i].first_piece) * job->part[i].per_piece;
    const int end = g4_min_int(first + job->part[i].per_piece, job->part[i].groups);
    if (!p->which) g4_product_groups(job, p, first, end);
    for (int k = first; p->which && k < end; k++) g4_product_groups(job, p, p->which[k], p->which[k] + 1);
}

void g4_matmul(const g4_compute *c, const g4_product *p, int n, const g4_acts *x)
{
    g4_matmul_job job = { .c = c, .x = x };
    int pieces = 0;
    for (int i = 0; i < n; i++) {
        if (!p[i].w->data || p[i].first >= p[i].end) continue;
        g4_inputs_show(c, p[i].w, x, p[i].first, p[i].end);
        if (p[i].w->act) {
            g4_static_product(c, &p[i], x);
            continue;
        }
        const int groups = g4_product_n_groups(&p[i]);
        const int per_piece = g4_piece_groups(c, p[i].w, p[i].end - p[i].first);
        job.part[job.n].p = &p[i];
        job.part[job.n].groups = groups;
        job.part[job.n].per_piece = per_piece;
        job.part[job.n].first_piece = pieces;
        pieces += (groups + per_piece - 1) / per_piece;
        job.n++;
    }
    g4_parallel_for(c->pool, pieces, g4_matmul_piece, &job);
}

/* ---- Products of shares of the inputs -------------------------------------------------------------------- */

typedef struct {
    const g4_compute *c;
    const g4_stack *w;
    const g4_acts *x;
    const g4_share *shares;
    float *y; /* row 0 */
    size_t stride;
    int per_piece, pieces; /* of each share */
} g4_shares_job;

/* The matrix of a share, and which of its groups are this piece. */
static g4_matrix g4_share_piece(const g4_shares_job *job, int piece, const g4_share **share, int *first, int *end)
{
    g4_matrix w = job->w->first;
    *share = &job->shares[piece / job->pieces];
    *first = piece % job->pieces * job->per_piece;
    *end = g4_min_int(*first + job->per_piece, w.groups);
    w.data += (size_t)(*share)->matrix * job->w->bytes;
    return w;
}

static void g4_shares_run(g4_shares_job *job, int n, g4_piece_fn fn)
{
    g4_inputs_show_shares(job->c, job->w, job->x, job->shares, n);
    job->pieces = (job->w->first.groups + job->per_piece - 1) / job->per_piece;
    g4_parallel_for(job->c->pool, n * job->pieces, fn, job);
}

static int g4_rows_per_share(const g4_share *shares, int n)
{
    return n > 0 ? (shares[n - 1].end - shares[0].first) / n : 0;
}

static void g4_shares_piece(const g4_task *task, int piece)
{
    const g4_shares_job *job = task->job;
    const g4_share *s;
    int first, end;
    const g4_matrix w = g4_share_piece(job, piece, &s, &first, &end);
    float *y = job->y + (size_t)s->first * job->stride + 16 * (size_t)first;
    job->c->kernels->gemm[w.type](y, job->stride, &w, job->x, s->first, s->end, first, end);
}

void g4_matmul_shares(const g4_compute *c, float *y, size_t stride, const g4_stack *w, const g4_acts *x,
                      const g4_share *shares, int n)
{
    g4_shares_job job = { c, w, x, shares, y, stride, g4_piece_groups(c, &w->first, g4_rows_per_share(shares, n)), 0 };
    g4_shares_run(&job, n, g4_shares_piece);
}

static void g4_geglu_piece(const g4_task *task, int piece)
{
    const g4_shares_job *job = task->job;
    const g4_kernels *kernels = job->c->kernels;
    const g4_share *s;
    int first, end;
    const g4_matrix w = g4_share_piece(job, piece, &s, &first, &end);
    const size_t width = 16 * (size_t)(end - first);
    float *tile = g4_room(job->c, task); /* (G4_TILE_ROWS, width): gate and up in turn */
    for (int r0 = s->first; r0 < s->end; r0 += G4_TILE_ROWS) {
        const int r1 = g4_min_int(r0 + G4_TILE_ROWS, s->end);
        kernels->gemm[w.type](tile, width, &w, job->x, r0, r1, first, end);
        for (int r = r0; r < r1; r++)
            for (int g = first; g < end; g += 2) {
                const float *gate = tile + (size_t)(r - r0) * width + 16 * (size_t)(g - first);
                kernels->geglu(job->y + (size_t)r * job->stride + 8 * (size_t)g, gate, gate + 16, 16);
            }
    }
}

void g4_matmul_geglu(const g4_compute *c, const g4_acts *h, const g4_stack *w, const g4_acts *x, const g4_share *shares,
                     int n)
{
    if (w->first.act) { /* no stack of experts has scales */
        g4_inputs_show_shares(c, w, x, shares, n);
        g4_static_geglu(c, h, &w->first, x, shares);
        return;
    }
    const int groups = g4_piece_groups(c, &w->first, g4_rows_per_share(shares, n));
    /* Pairs of groups, and few enough for the tile. */
    const int per_piece = 2 * g4_max_int(1, g4_min_int(groups, G4_TILE_GROUPS) / 2);
    g4_shares_job job = { c, w, x, shares, h->x, h->x_stride, per_piece, 0 };
    g4_shares_run(&job, n, g4_geglu_piece);
}
