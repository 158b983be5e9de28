/* sampler.h - a model that knows nothing: random tokens under a grammar's mask, with a taste for whatever ends things.
 */
#ifndef G4_SAMPLER_H
#define G4_SAMPLER_H

#include <string.h>

#include "chat/chat.h"

typedef struct {
    uint64_t state;
    long tokens;
} g4_sampler;

static inline uint32_t g4_sampler_random(g4_sampler *r, uint32_t n)
{
    uint64_t x = r->state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(((x ^ x >> 31) >> 32) * n >> 32);
}

/* The pick-th token of a mask. */
static inline g4_token g4_mask_token(const uint32_t *mask, uint32_t pick)
{
    size_t word = 0;
    for (uint32_t n; pick >= (n = (uint32_t)__builtin_popcount(mask[word])); word++) pick -= n;
    uint32_t bits = mask[word];
    while (pick-- > 0) bits &= bits - 1;
    return (g4_token)(32 * word + (size_t)__builtin_ctz(bits));
}

static inline uint32_t g4_mask_count(const uint32_t *mask, uint32_t n_vocab)
{
    uint32_t n = 0;
    for (size_t i = 0; i < g4_mask_words((int)n_vocab); i++) n += (uint32_t)__builtin_popcount(mask[i]);
    return n;
}

#define G4_N_CLOSERS 6
/* The tokens that end strings, lists and objects; -1: the vocabulary has none such. */
static inline void g4_find_closers(const g4_tokenizer *t, g4_token closers[G4_N_CLOSERS])
{
    static const char *const texts[G4_N_CLOSERS] = { "\"", "}", "]", "\"}", "\"]", G4_QUOTE };
    for (int i = 0; i < G4_N_CLOSERS; i++) {
        g4_tokens ids = { 0 };
        closers[i] = -1;
        if (g4_tokenizer_encode(t, NULL, texts[i], strlen(texts[i]), 1, &ids, NULL, NULL) == G4_OK && ids.n == 1)
            closers[i] = ids.ids[0];
        g4_free(NULL, ids.ids);
    }
}

/* Appends the bytes of a random sentence of the grammar. Returns 1 when it is whole, 0 when it got too long, -1 on a
 * dead end. */
static inline int g4_sample_text(g4_sampler *r, g4_grammar *g, const g4_tokenizer *t, int max_tokens, g4_buf *out)
{
    g4_token closers[G4_N_CLOSERS];
    g4_find_closers(t, closers);
    int32_t state = g4_grammar_start(g);
    for (int i = 0; i < max_tokens; i++) {
        state = g4_grammar_settle(g, state);
        const uint32_t *mask = g4_grammar_mask(g, state);
        if (mask == NULL || state == 0) return -1;
        const int ends = g4_grammar_accepts(g, state);
        if (ends && g4_sampler_random(r, 3) == 0) return 1;
        g4_token token = -1;
        for (int k = 0; k < G4_N_CLOSERS && token < 0 && g4_sampler_random(r, 2) == 0; k++) /* close something */
            if (closers[k] >= 0 && (mask[closers[k] / 32] >> (closers[k] % 32) & 1)) token = closers[k];
        const uint32_t n_allowed = g4_mask_count(mask, t->n_vocab);
        if (n_allowed == 0) return ends ? 1 : -1;
        if (token < 0) token = g4_mask_token(mask, g4_sampler_random(r, n_allowed));
        char piece[256];
        int special;
        const size_t n = g4_tokenizer_piece(t, token, piece, &special);
        g4_buf_add(out, piece, n);
        state = g4_grammar_read(g, state, token);
        if (state == 0) return -1;
        r->tokens++;
    }
    return 0;
}

#endif
