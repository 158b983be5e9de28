/* attend.c - attention of rows over the pages of their timelines: out = softmax(q . keys) values.
 *
 * A query's result is defined over spans of 256 positions (absolute): inside a span the online softmax of a kernel runs
 * over tiles of 64 in order; the spans' results (largest score, sum, weighted values) are combined in order. So it does
 * not matter whether one thread runs all spans of a query (prompts) or each span has its own (a long context and one
 * token). Keys and values of a page are read once for all heads and neighbouring rows that share them. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "compute.h"

#include <limits.h>

typedef struct {
    const g4_compute *compute;
    const g4_query *queries;
    int cache, n_kv_heads, group, head_dim;
    g4_unit *units;
    int n_units;
} g4_attend_job;

typedef struct { /* the query heads of a unit that read one key/value head */
    const g4_unit *unit;
    int kv_head, n;                               /* queries x group */
    int lo[G4_UNIT_QUERIES], hi[G4_UNIT_QUERIES]; /* positions that each sees */
    float *q;                                     /* (n, head_dim) */
} g4_heads;

/* Results so far of those query heads. */
typedef struct {
    float M[G4_UNIT_QUERIES], L[G4_UNIT_QUERIES];
    float *O; /* (n, head_dim) */
} g4_sums;

void g4_attend_merge(float *M, float *L, float *O, float m, float l, const float *o, int dim)
{
    if (m == -INFINITY) return;
    const float largest = fmaxf(*M, m), old = expf(*M - largest), add = expf(m - largest);
    *L = *L * old + l * add;
    for (int d = 0; d < dim; d++) O[d] = O[d] * old + o[d] * add;
    *M = largest;
}

size_t g4_attend_room_floats(int head_dim)
{
    return 3 * G4_UNIT_QUERIES * g4_round_up((size_t)head_dim, 16); /* q, o of a span, O */
}

size_t g4_attend_partial_floats(int n_ctx, int n_heads, int head_dim)
{
    return ((size_t)n_ctx / G4_SPAN + 2) * (size_t)n_heads * ((size_t)head_dim + 2);
}

/* Copy the query heads of a unit side by side to q. */
static void g4_gather_heads(const g4_attend_job *job, const g4_unit *unit, int kv_head, float *q, g4_heads *out)
{
    const size_t dim = (size_t)job->head_dim, group = (size_t)job->group;
    out->unit = unit;
    out->kv_head = kv_head;
    out->q = q;
    out->n = 0;
    for (int i = unit->first; i < unit->end; i++) {
        const g4_query *query = &job->queries[i];
        memcpy(q + (size_t)out->n * dim, query->q + (size_t)kv_head * group * dim, group * dim * sizeof *q);
        for (int h = 0; h < job->group; h++, out->n++) {
            out->lo[out->n] = query->first;
            out->hi[out->n] = query->end;
        }
    }
}

/* One span for all those heads: m, l (n) and o (n, head_dim) start empty here. */
static void g4_attend_span(const g4_attend_job *job, const g4_heads *s, int span, float *m, float *l, float *o)
{
    const g4_kv *kv = job->queries[s->unit->first].kv;
    const int pages = G4_SPAN / G4_PAGE;
    int lo[G4_UNIT_QUERIES], hi[G4_UNIT_QUERIES];
    for (int i = 0; i < s->n; i++) {
        m[i] = -INFINITY;
        l[i] = 0;
    }
    memset(o, 0, (size_t)s->n * (size_t)job->head_dim * sizeof *o);
    for (int page = span * pages; page < (span + 1) * pages; page++) {
        int any = 0;
        for (int i = 0; i < s->n; i++) {
            lo[i] = g4_max_int(s->lo[i] - page * G4_PAGE, 0);
            hi[i] = g4_min_int(s->hi[i] - page * G4_PAGE, G4_PAGE);
            any |= lo[i] < hi[i];
        }
        if (!any) continue;
        const g4_kv_tile tile = g4_kv_read(kv, job->cache, page, s->kv_head);
        job->compute->kernels->attend(&tile, kv->type, job->head_dim, s->q, s->n, lo, hi, m, l, o);
    }
}

static void g4_sums_start(g4_sums *sums, float *O, const g4_heads *s, int head_dim)
{
    sums->O = O;
    for (int i = 0; i < s->n; i++) {
        sums->M[i] = -INFINITY;
        sums->L[i] = 0;
    }
    memset(O, 0, (size_t)s->n * (size_t)head_dim * sizeof *O);
}

static void g4_sums_add(g4_sums *sums, const g4_heads *s, const float *m, const float *l, const float *o, int head_dim)
{
    for (int i = 0; i < s->n; i++) {
        const size_t offset = (size_t)i * (size_t)head_dim;
        g4_attend_merge(&sums->M[i], &sums->L[i], sums->O + offset, m[i], l[i], o + offset, head_dim);
    }
}

/* out = O / L, to each head's place. */
static void g4_sums_finish(const g4_sums *sums, const g4_attend_job *job, const g4_heads *s)
{
    const int dim = job->head_dim;
    const float *O = sums->O;
    for (int i = 0; i < s->n; i++, O += dim) {
        float *out = job->queries[s->unit->first + i / job->group].out;
        float *y = out + (s->kv_head * job->group + i % job->group) * dim;
        const float r = 1.0f / sums->L[i];
        for (int d = 0; d < dim; d++) y[d] = O[d] * r;
    }
}

/* A piece: one key/value head of one unit over all its spans. */
static void g4_attend_unit(const g4_task *task, int piece)
{
    const g4_attend_job *job = task->job;
    const g4_unit *unit = &job->units[piece / job->n_kv_heads];
    const size_t room = G4_UNIT_QUERIES * (size_t)job->head_dim;
    float *q = g4_room(job->compute, task), *o = q + room, m[G4_UNIT_QUERIES], l[G4_UNIT_QUERIES];
    g4_heads s;
    g4_sums sums;
    g4_gather_heads(job, unit, piece % job->n_kv_heads, q, &s);
    g4_sums_start(&sums, o + room, &s, job->head_dim);
    for (int span = unit->first_span; span < unit->first_span + unit->n_spans; span++) {
        g4_attend_span(job, &s, span, m, l, o);
        g4_sums_add(&sums, &s, m, l, o, job->head_dim);
    }
    g4_sums_finish(&sums, job, &s);
}

/* Floats of the result of one span of a unit for one key/value head: m, l, then o of all its query heads. */
static size_t g4_partial_size(const g4_attend_job *job, const g4_unit *unit)
{
    return (size_t)(unit->end - unit->first) * (size_t)job->group * ((size_t)job->head_dim + 2);
}

static float *g4_partial(const g4_attend_job *job, const g4_unit *unit, int kv_head, int span)
{
    return unit->partial + (size_t)(kv_head * unit->n_spans + span) * g4_partial_size(job, unit);
}

/* A piece: one span of one key/value head of one unit. */
static void g4_attend_split(const g4_task *task, int piece)
{
    const g4_attend_job *job = task->job;
    const g4_unit *unit = &job->units[job->n_units - 1];
    while (piece < unit->first_piece) unit--;
    const int kv_head = (piece - unit->first_piece) / unit->n_spans, span = (piece - unit->first_piece) % unit->n_spans;
    g4_heads s;
    g4_gather_heads(job, unit, kv_head, g4_room(job->compute, task), &s);
    float *m = g4_partial(job, unit, kv_head, span);
    g4_attend_span(job, &s, unit->first_span + span, m, m + s.n, m + 2 * s.n);
}

/* A piece: combine the spans of one key/value head of one unit. */
static void g4_attend_combine(const g4_task *task, int piece)
{
    const g4_attend_job *job = task->job;
    const g4_unit *unit = &job->units[piece / job->n_kv_heads];
    float *q = g4_room(job->compute, task);
    g4_heads s;
    g4_sums sums;
    g4_gather_heads(job, unit, piece % job->n_kv_heads, q, &s);
    g4_sums_start(&sums, q + G4_UNIT_QUERIES * (size_t)job->head_dim, &s, job->head_dim);
    for (int span = 0; span < unit->n_spans; span++) {
        const float *m = g4_partial(job, unit, s.kv_head, span);
        g4_sums_add(&sums, &s, m, m + s.n, m + 2 * s.n, job->head_dim);
    }
    g4_sums_finish(&sums, job, &s);
}

/* Queries as units: neighbours of one timeline, as many as read a head together. */
static void g4_make_units(g4_attend_job *job, int n)
{
    const int max_queries = g4_max_int(1, G4_UNIT_QUERIES / job->group);
    job->n_units = 0;
    for (int i = 0; i < n;) {
        g4_unit *unit = &job->units[job->n_units++];
        int lo = INT_MAX, hi = 0;
        unit->first = i;
        for (; i < n && i < unit->first + max_queries && job->queries[i].kv == job->queries[unit->first].kv; i++) {
            lo = g4_min_int(lo, job->queries[i].first);
            hi = g4_max_int(hi, job->queries[i].end);
        }
        unit->end = i;
        unit->first_span = lo / G4_SPAN;
        unit->n_spans = (hi - 1) / G4_SPAN + 1 - unit->first_span;
    }
}

/* Make every span a piece, if threads would idle otherwise and there is room for the results. Returns the number of
 * pieces, or 0. */
static int g4_split_units(g4_attend_job *job)
{
    int pieces = 0;
    if (job->n_units * job->n_kv_heads >= 2 * g4_pool_size(job->compute->pool)) return 0;
    for (int u = 0; u < job->n_units; u++) job->queries[job->units[u].first].kv->partial_used = 0;
    for (int u = 0; u < job->n_units; u++) {
        g4_unit *unit = &job->units[u];
        g4_kv *kv = job->queries[unit->first].kv;
        unit->partial = kv->partial + kv->partial_used;
        kv->partial_used += (size_t)(job->n_kv_heads * unit->n_spans) * g4_partial_size(job, unit);
        if (kv->partial_used > kv->partial_floats) return 0;
        unit->first_piece = pieces;
        pieces += job->n_kv_heads * unit->n_spans;
    }
    return pieces > job->n_units * job->n_kv_heads ? pieces : 0;
}

void g4_attend_queries(const g4_compute *c, const g4_query *queries, int n, int cache, int n_kv_heads, int group,
                       int head_dim, g4_unit *units)
{
    g4_attend_job job = { c, queries, cache, n_kv_heads, group, head_dim, units, 0 };
    g4_make_units(&job, n);
    const int pieces = g4_split_units(&job);
    if (pieces) {
        g4_parallel_for(c->pool, pieces, g4_attend_split, &job);
        g4_parallel_for(c->pool, job.n_units * n_kv_heads, g4_attend_combine, &job);
    } else {
        g4_parallel_for(c->pool, job.n_units * n_kv_heads, g4_attend_unit, &job);
    }
}
