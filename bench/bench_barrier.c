/* bench_barrier [THREADS [MODEL.g4]] - what it costs to hand a job to the threads and to wait for its end: jobs one
 * behind the other, as a token makes them, of nothing or of some microseconds; with a model, also the number of jobs
 * of its token. It brings the library with it, for what is measured is inside. */
#define _GNU_SOURCE 1 /* clock_gettime under -std=c11 */
#define GEMMA4_IMPLEMENTATION
#include "../gemma4.h"

#include <stdio.h>

typedef struct {
    int work;
} g4_load;

/* Some microseconds of arithmetic, or nothing. */
static void g4_load_piece(const g4_task *task, int piece)
{
    const g4_load *load = task->job;
    volatile float x = (float)(piece + task->worker);
    for (int i = 0; i < load->work; i++) x = x * 0.5f + 1.0f;
}

static int g4_by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* ns of one job of so many pieces: the 10th and 50th of 100 batches, for a thread that was sent away spoils some. */
static void g4_measure(g4_pool *pool, int pieces, int work, double ns[2])
{
    enum { BATCHES = 100, JOBS = 200 };
    double took[BATCHES];
    g4_load load = { work };
    for (int b = 0; b < BATCHES; b++) {
        const double from = g4_seconds();
        for (int i = 0; i < JOBS; i++) {
            if (pool)
                g4_parallel_for(pool, pieces, g4_load_piece, &load);
            else
                g4_load_piece(&(g4_task) { &load, 0 }, 0);
        }
        took[b] = (g4_seconds() - from) * 1e9 / JOBS;
    }
    qsort(took, BATCHES, sizeof *took, g4_by_size);
    ns[0] = took[BATCHES / 10];
    ns[1] = took[BATCHES / 2];
}

int main(int argc, char **argv)
{
    const int threads = argc > 1 ? atoi(argv[1]) : 2;
    g4_pool *pool = g4_pool_open(NULL, threads);
    if (pool == NULL) return 1;
    printf("%d threads; ns a job, the 10th and the 50th of 100 batches of 200\n", threads);
    for (int work = 0; work <= 8000; work = work ? 4 * work : 500) {
        double one[2], job[2];
        g4_measure(NULL, 1, work, one);
        for (int each = 1; each <= 16; each *= 4) {
            g4_measure(pool, each * threads, work, job);
            printf("%2d pieces of %6.0f ns for each thread: %8.0f %8.0f, beyond the work %7.0f %7.0f\n", each, one[0],
                   job[0], job[1], job[0] - each * one[0], job[1] - each * one[0]);
        }
    }
    g4_pool_close(pool);
    if (argc <= 2) return 0;
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_error err = { 0 };
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = argv[2], .n_threads = threads }, &err) ||
        g4_session_open(&s, e, &(g4_session_options) { .n_ctx = 64 }, &err) ||
        g4_session_eval(s, (const g4_token[]) { 2, 3 }, 2, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    /* the ticket counts jobs; those of one piece are run in place and are no jobs */
    const uint64_t before = atomic_load(&e->compute.pool->ticket) >> (2 * G4_TICKET_BITS);
    if (g4_session_eval(s, (const g4_token[]) { 4 }, 1, &err)) return 1;
    const uint64_t jobs = (atomic_load(&e->compute.pool->ticket) >> (2 * G4_TICKET_BITS)) - before;
    printf("%s: %d jobs a token\n", argv[2], (int)(jobs & 0xFFFF));
    g4_session_close(s);
    g4_engine_close(e);
    return 0;
}
