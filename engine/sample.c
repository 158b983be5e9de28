/* sample.c - from logits to the next token.
 *
 * Ties go to the lowest id, and one random number, a function of (seed, position), decides: the same choice whatever
 * was computed before. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "parts.h"

/* ---- The k best ------------------------------------------------------------------------------------- */

/* Does candidate a come before b? */
static int g4_better(const g4_candidate *a, const g4_candidate *b)
{
    return a->logprob > b->logprob || (a->logprob == b->logprob && a->token < b->token);
}

static void g4_swap_candidates(g4_candidate *a, g4_candidate *b)
{
    const g4_candidate swap = *a;
    *a = *b;
    *b = swap;
}

/* Let the candidate at i sink in a heap whose root is the worst. */
static void g4_heap_sink(g4_candidate *heap, int n, int i)
{
    for (;;) {
        int worst = i;
        for (int child = 2 * i + 1; child <= 2 * i + 2 && child < n; child++)
            if (g4_better(&heap[worst], &heap[child])) worst = child;
        if (worst == i) return;
        g4_swap_candidates(&heap[i], &heap[worst]);
        i = worst;
    }
}

static void g4_heap_build(g4_candidate *heap, int n)
{
    for (int i = n / 2 - 1; i >= 0; i--) g4_heap_sink(heap, n, i);
}

int g4_top(const float *score, int n, int k, g4_candidate *out)
{
    enum { BLOCK = 64 };
    int have = 0;
    for (int i = 0; i < n; i++) {
        if (have == k && i % BLOCK == 0 && i + BLOCK <= n) {
            /* Most blocks have nothing better: one branch for all of them. */
            int any = 0;
            for (int j = 0; j < BLOCK; j++) any |= score[i + j] > out[0].logprob;
            if (!any) {
                i += BLOCK - 1;
                continue;
            }
        }
        if (have == k) {
            if (!(score[i] > out[0].logprob)) continue; /* an equal score has a higher id than what is there */
            out[0] = (g4_candidate) { i, score[i] };
            g4_heap_sink(out, have, 0);
        } else if (score[i] > -INFINITY) {
            out[have++] = (g4_candidate) { i, score[i] };
            if (have == k) g4_heap_build(out, k);
        }
    }
    if (have < k) g4_heap_build(out, have);
    for (int last = have - 1; last > 0; last--) { /* move the worst behind, again and again */
        g4_swap_candidates(&out[0], &out[last]);
        g4_heap_sink(out, last, 0);
    }
    return have;
}

double g4_log_sum(const float *logits, int n)
{
    float largest = logits[0];
    for (int i = 1; i < n; i++) largest = fmaxf(largest, logits[i]);
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)expf(logits[i] - largest);
    return log(sum) + (double)largest;
}

/* ---- Penalties -------------------------------------------------------------------------------------- */

static int g4_repeats(const g4_sampling *p) { return p->repeat_penalty > 0 && p->repeat_penalty != 1.0f; }

int g4_penalises(const g4_sampling *p)
{
    return g4_repeats(p) || p->presence_penalty != 0 || p->frequency_penalty != 0 || p->n_bias > 0;
}

/* Has id been asked about before? */
static int g4_seen_before(uint32_t *seen, uint32_t id)
{
    const uint32_t bit = 1u << (id % 32), was = seen[id / 32] & bit;
    seen[id / 32] |= bit;
    return was != 0;
}

static void g4_penalise(const g4_choice *c, const g4_sampling *p, float *logits)
{
    const size_t words = (size_t)c->n_vocab / 32 + 1;
    if (g4_repeats(p)) { /* every token of the timeline once */
        memset(c->seen, 0, words * sizeof *c->seen);
        for (int i = 0; i < c->n_tokens; i++) {
            const uint32_t id = (uint32_t)c->tokens[i];
            if (g4_seen_before(c->seen, id)) continue;
            logits[id] = logits[id] > 0 ? logits[id] / p->repeat_penalty : logits[id] * p->repeat_penalty;
        }
    }
    if (p->presence_penalty != 0 || p->frequency_penalty != 0) {
        memset(c->seen, 0, words * sizeof *c->seen);
        for (int i = c->reply_start; i < c->n_tokens; i++) {
            const uint32_t id = (uint32_t)c->tokens[i];
            if (!g4_seen_before(c->seen, id)) logits[id] -= p->presence_penalty;
            logits[id] -= p->frequency_penalty;
        }
    }
    for (int i = 0; i < p->n_bias; i++)
        if (p->bias[i].token >= 0 && p->bias[i].token < c->n_vocab) logits[p->bias[i].token] += p->bias[i].bias;
}

/* ---- The choice -------------------------------------------------------------------------------------- */

/* Uniform in [0, 1) from a seed and a position: two rounds of the splitmix64 finaliser. */
static double g4_random(uint64_t seed, uint64_t position)
{
    uint64_t z = seed * UINT64_C(0x9E3779B97F4A7C15) + position;
    for (int round = 0; round < 2; round++) {
        z += UINT64_C(0x9E3779B97F4A7C15);
        z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
        z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
        z ^= z >> 31;
    }
    return (double)(z >> 11) * 0x1p-53;
}

/* The scores that a choice goes by, after penalties, bias and mask; *n gets their number. */
static const float *g4_scores(const g4_choice *c, const g4_sampling *p, int *n)
{
    *n = c->few ? c->n_few : c->n_vocab;
    if (c->few) { /* side by side, in place: few[i] >= i */
        g4_penalise(c, p, c->work);
        for (int i = 0; i < c->n_few; i++) c->work[i] = c->work[c->few[i]];
        return c->work;
    }
    if (!g4_penalises(p) && !c->mask) return c->logits;
    memcpy(c->work, c->logits, (size_t)c->n_vocab * sizeof *c->work);
    g4_penalise(c, p, c->work);
    for (int i = 0; i < c->n_vocab && c->mask; i++)
        if (!(c->mask[i / 32] >> (i % 32) & 1)) c->work[i] = -INFINITY;
    return c->work;
}

/* One of n candidates, best first, whose scores become weights. */
static g4_token g4_draw(g4_candidate *c, int n, const g4_sampling *p, double uniform)
{
    double total = 0;
    const float best = c[0].logprob;
    for (int i = 0; i < n; i++) {
        c[i].logprob = expf((c[i].logprob - best) / p->temperature);
        total += (double)c[i].logprob;
    }
    if (p->top_p > 0 && p->top_p < 1) { /* the smallest head whose probability reaches top_p */
        double sum = 0;
        int keep = 0;
        while (keep < n && sum < (double)p->top_p * total) sum += (double)c[keep++].logprob;
        n = keep;
        total = sum;
    }
    if (p->min_p > 0) { /* c[0] has weight 1 */
        int keep = 1;
        total = (double)c[0].logprob;
        while (keep < n && c[keep].logprob >= p->min_p) total += (double)c[keep++].logprob;
        n = keep;
    }
    double rest = uniform * total;
    for (int i = 0; i < n; i++) {
        rest -= (double)c[i].logprob;
        if (rest < 0) return c[i].token;
    }
    return c[n - 1].token;
}

g4_token g4_sample(const g4_choice *c, const g4_sampling *p)
{
    int n_scores;
    const float *score = g4_scores(c, p, &n_scores);
    const int k = p->temperature <= 0 ? 1 : p->top_k > 0 ? g4_min_int(p->top_k, c->n_vocab) : c->n_vocab;
    const int n = g4_top(score, n_scores, k, c->candidates);
    for (int i = 0; c->few && i < n; i++) c->candidates[i].token = c->few[c->candidates[i].token];
    if (n == 0) return -1;
    if (n == 1 || p->temperature <= 0) return c->candidates[0].token;
    return g4_draw(c->candidates, n, p, g4_random(p->seed, (uint64_t)c->n_tokens));
}
