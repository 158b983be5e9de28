/* bandwidth.c - how fast this machine reads memory: the limit of answering, where every token reads every weight once.
 *
 *   bandwidth [THREADS] [MIB]        default: all CPUs that are online, 1024 MiB
 *
 * Each thread sums its own part of one block, far larger than any cache, as 64-bit words; the best of five rounds
 * counts. Prints GB/s. */
#define _DEFAULT_SOURCE 1
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 5

typedef struct {
    const uint64_t *data;
    size_t n;
    uint64_t sum;
    pthread_barrier_t *barrier;
} part;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *read_part(void *arg)
{
    part *p = arg;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t s[16] = { 0 }; /* two cache lines at a time, as many independent sums */
        pthread_barrier_wait(p->barrier);
        for (size_t i = 0; i + 16 <= p->n; i += 16)
            for (int k = 0; k < 16; k++) s[k] += p->data[i + (size_t)k];
        pthread_barrier_wait(p->barrier);
        for (int k = 0; k < 16; k++) p->sum += s[k];
    }
    return NULL;
}

int main(int argc, char **argv)
{
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    const int n = argc > 1 ? atoi(argv[1]) : (int)cpus;
    const size_t words = (size_t)(argc > 2 ? atol(argv[2]) : 1024) * 131072;
    uint64_t *data = malloc(words * sizeof *data);
    part *parts = calloc((size_t)(n > 0 ? n : 1), sizeof *parts);
    pthread_t *threads = calloc((size_t)(n > 0 ? n : 1), sizeof *threads);
    if (n < 1 || !data || !parts || !threads) return fprintf(stderr, "usage: bandwidth [THREADS] [MIB]\n"), 2;
    for (size_t i = 0; i < words; i++) data[i] = i;
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, (unsigned)n + 1);
    for (int i = 0; i < n; i++) {
        parts[i] = (part) { data + words / (size_t)n * (size_t)i, words / (size_t)n, 0, &barrier };
        if (pthread_create(&threads[i], NULL, read_part, &parts[i])) return 1;
    }
    double best = 1e9;
    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&barrier);
        const double start = now();
        pthread_barrier_wait(&barrier);
        const double s = now() - start;
        if (s < best) best = s;
    }
    uint64_t sum = 0;
    for (int i = 0; i < n; i++) pthread_join(threads[i], NULL), sum += parts[i].sum;
    printf("%.2f GB/s\n", (double)words * 8 / best * 1e-9);
    return sum == 1; /* never; keeps the sums */
}
