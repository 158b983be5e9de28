/* threads.c - a pool of workers and the pieces they are handed. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "parts.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

/* ---- Threads ---------------------------------------------------------------------------------
 *
 * g4_parallel_for hands out runs of pieces, shorter ones towards the end. All state of a job that a thread needs to
 * claim some is one 64-bit ticket: the number of the next piece, the number of pieces and a generation. Claiming is a
 * compare-and-swap, so a thread that was descheduled for a while can only claim pieces of the job that is current when
 * it swaps. A job ends when its pieces are done, not when every thread has come by: a core that is busy elsewhere
 * delays at most the run of pieces it holds. */

#define G4_TICKET_BITS 24 /* pieces a job may have: 16 million */
#define G4_TICKET_MASK ((UINT64_C(1) << G4_TICKET_BITS) - 1)
#define G4_SPINS 4000   /* looks before sleeping: some 40 us, the gap between two jobs of a token (measured on Zen 3) */
#define G4_CLAIM_MAX 32 /* pieces: of a product, some 200 us; a slice of the scheduler is some milliseconds */

typedef struct {
    g4_pool *pool;
    int index; /* 1..n - 1; the caller of g4_parallel_for is 0 */
} g4_worker;

struct g4_pool {
    const g4_allocator *a;
    int n;              /* threads, the caller included */
    pthread_t *threads; /* (n - 1) */
    g4_worker *workers; /* (n - 1) */
    int n_started;
    g4_piece_fn fn; /* of the current job; written before the ticket is published */
    void *job;
    g4_halt *halt;           /* of the call that the job is done for, or NULL */
    pid_t pid;               /* of the process that has the threads: a child made by fork() has none of them */
    _Atomic uint64_t ticket; /* generation << 48 | number of pieces << 24 | next piece */
    atomic_int n_done;
    atomic_int n_sleeping, caller_sleeps, quit;
    pthread_mutex_t lock; /* for sleeping only */
    pthread_cond_t wake, finished;
};

static inline void g4_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Claim and run pieces until none is left: a third of a fair share of those left at once, which is one by one in the
 * end. The ticket's cache line travels between cores with every claim, and long runs of weights are read faster:
 * together 4 % of a token against one by one (Zen 3). */
static void g4_pool_work(g4_pool *p, int worker)
{
    uint64_t ticket = atomic_load(&p->ticket);
    for (;;) {
        const int next = (int)(ticket & G4_TICKET_MASK), n = (int)(ticket >> G4_TICKET_BITS & G4_TICKET_MASK);
        if (next >= n) return;
        const int some = g4_max_int(1, g4_min_int((n - next) / (3 * p->n), G4_CLAIM_MAX));
        if (!atomic_compare_exchange_weak(&p->ticket, &ticket, ticket + (uint64_t)some)) continue;
        /* What was claimed keeps the job, and so its call, from ending; before that the call may be over. */
        const g4_task task = { p->job, worker };
        for (int piece = next; piece < next + some && !g4_halted(p->halt); piece++) p->fn(&task, piece);
        if (atomic_fetch_add(&p->n_done, some) + some == n && atomic_load(&p->caller_sleeps)) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->finished);
            pthread_mutex_unlock(&p->lock);
        }
        ticket = atomic_load(&p->ticket);
    }
}

static int g4_pool_has_work(g4_pool *p)
{
    const uint64_t ticket = atomic_load(&p->ticket);
    return (ticket & G4_TICKET_MASK) < (ticket >> G4_TICKET_BITS & G4_TICKET_MASK);
}

static void *g4_pool_main(void *arg)
{
    const g4_worker *w = arg;
    g4_pool *p = w->pool;
    while (!atomic_load(&p->quit)) {
        g4_pool_work(p, w->index);
        int spins = 0;
        while (!g4_pool_has_work(p) && !atomic_load(&p->quit) && spins < G4_SPINS) {
            g4_pause();
            spins++;
        }
        if (spins < G4_SPINS) continue;
        pthread_mutex_lock(&p->lock);
        atomic_fetch_add(&p->n_sleeping, 1);
        while (!g4_pool_has_work(p) && !atomic_load(&p->quit)) pthread_cond_wait(&p->wake, &p->lock);
        atomic_fetch_sub(&p->n_sleeping, 1);
        pthread_mutex_unlock(&p->lock);
    }
    return NULL;
}

/* End the threads. In a child made by fork() they are not there, and locks are as the parent held them. */
static void g4_pool_end_threads(g4_pool *p)
{
    if (p->pid != getpid()) return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->quit, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_started; i++) pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->finished);
    pthread_mutex_destroy(&p->lock);
}

void g4_pool_close(g4_pool *p)
{
    if (!p) return;
    g4_pool_end_threads(p);
    g4_free(p->a, p->threads);
    g4_free(p->a, p->workers);
    g4_free(p->a, p);
}

g4_pool *g4_pool_open(const g4_allocator *a, int n_threads)
{
    g4_pool *p = g4_alloc(a, 1, sizeof *p);
    if (!p) return NULL;
    p->a = a;
    p->n = n_threads;
    p->pid = getpid();
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->finished, NULL);
    p->threads = g4_alloc(a, (size_t)n_threads, sizeof *p->threads);
    p->workers = g4_alloc(a, (size_t)n_threads, sizeof *p->workers);
    if (!p->threads || !p->workers) {
        g4_pool_close(p);
        return NULL;
    }
    for (int i = 0; i < n_threads - 1; i++) {
        p->workers[i] = (g4_worker) { p, i + 1 };
        if (pthread_create(&p->threads[i], NULL, g4_pool_main, &p->workers[i]) != 0) {
            g4_pool_close(p);
            return NULL;
        }
        p->n_started++;
    }
    return p;
}

int g4_pool_size(const g4_pool *p) { return p->n; }
int g4_pool_is_ours(const g4_pool *p) { return p->pid == getpid(); }
void g4_pool_halt(g4_pool *p, g4_halt *halt) { p->halt = halt; }
int g4_pool_halted(const g4_pool *p) { return g4_halted(p->halt); }

void g4_pool_rest(const g4_pool *p)
{
    if (p->halt && p->halt->rest && !g4_halted(p->halt)) p->halt->rest(p->halt->user);
}

void g4_parallel_for(g4_pool *p, int n_pieces, g4_piece_fn fn, void *job)
{
    if (n_pieces <= 1 || p->n == 1) {
        const g4_task task = { job, 0 };
        for (int i = 0; i < n_pieces && !g4_halted(p->halt); i++) fn(&task, i);
        return;
    }
    p->fn = fn;
    p->job = job;
    atomic_store(&p->n_done, 0);
    const uint64_t generation = (atomic_load(&p->ticket) >> (2 * G4_TICKET_BITS)) + 1;
    /* An exchange, not a store: what is read behind it decides about waking, and an emulator may let a load overtake a
     * store (qemu 7.2 does). */
    atomic_exchange(&p->ticket, generation << (2 * G4_TICKET_BITS) | (uint64_t)n_pieces << G4_TICKET_BITS);
    if (atomic_load(&p->n_sleeping) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    g4_pool_work(p, 0);
    for (int spins = 0; atomic_load(&p->n_done) < n_pieces; spins++) {
        if (spins < G4_SPINS) {
            g4_pause();
            continue;
        }
        pthread_mutex_lock(&p->lock);
        atomic_exchange(&p->caller_sleeps, 1);
        while (atomic_load(&p->n_done) < n_pieces) pthread_cond_wait(&p->finished, &p->lock);
        atomic_store(&p->caller_sleeps, 0);
        pthread_mutex_unlock(&p->lock);
    }
}

int g4_read_line(const char *path, char *out, int cap)
{
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    const int ok = fgets(out, cap, f) != NULL;
    fclose(f);
    return ok;
}

int g4_default_threads(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        int cores = 0;
        for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            if (!CPU_ISSET(cpu, &set)) continue;
            char path[96], line[64];
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/topology/thread_siblings_list", cpu);
            const size_t first = g4_read_line(path, line, sizeof line) ? (size_t)strtoul(line, NULL, 10) : cpu;
            if (first == cpu || first >= CPU_SETSIZE || !CPU_ISSET(first, &set))
                cores++; /* its first sibling is not ours */
        }
        if (cores > 0) n = cores;
    }
    char line[64];
    if (g4_read_line("/sys/fs/cgroup/cpu.max", line, sizeof line)) { /* "max 100000" or "quota period" */
        char *end;
        const double quota = strtod(line, &end), period = end > line ? strtod(end, NULL) : 0;
        if (quota > 0 && period > 0) {
            const long cpus = (long)(quota / period + 0.5);
            if (cpus < n) n = cpus < 1 ? 1 : cpus;
        }
    }
#endif
    return n < 1 ? 1 : n > G4_MAX_THREADS ? G4_MAX_THREADS : (int)n;
}
