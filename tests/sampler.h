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

/* Appends the bytes of a random sentence of the grammar. Returns 1 when it is whole, 0 when it got too long, -1 on a
 * dead end. */
static inline int g4_sample_text(g4_sampler *r, g4_grammar *g, const g4_tokenizer *t, int max_tokens, g4_buf *out)
{
    static const char *const closers[] = { "\"", "}", "]", "\"}", "\"]", "<|\"|>" };
    int32_t state = g4_grammar_start(g);
    for (int i = 0; i < max_tokens; i++) {
        state = g4_grammar_settle(g, state);
        const uint32_t *mask = g4_grammar_mask(g, state);
        if (mask == NULL || state == 0) return -1;
        int ends = g4_grammar_accepts(g, state);
        if (ends && g4_sampler_random(r, 3) == 0) return 1;
        g4_token token = -1;
        char piece[256];
        int special;
        if (g4_sampler_random(r, 2) == 0) { /* try to close something, the more so the longer it is */
            for (g4_token id = 0; id < (g4_token)t->n_vocab && token < 0; id++) {
                if (!(mask[id / 32] >> (id % 32) & 1)) continue;
                size_t n = g4_tokenizer_piece(t, id, piece, &special);
                for (size_t k = 0; k < sizeof closers / sizeof closers[0]; k++)
                    if (n == strlen(closers[k]) && memcmp(piece, closers[k], n) == 0) token = id;
            }
        }
        uint32_t n_allowed = 0;
        for (uint32_t id = 0; id < t->n_vocab; id++) n_allowed += mask[id / 32] >> (id % 32) & 1;
        if (n_allowed == 0) return ends ? 1 : -1;
        uint32_t pick = g4_sampler_random(r, n_allowed);
        for (uint32_t id = 0; id < t->n_vocab && token < 0; id++)
            if ((mask[id / 32] >> (id % 32) & 1) && pick-- == 0) token = (g4_token)id;
        size_t n = g4_tokenizer_piece(t, token, piece, &special);
        g4_buf_add(out, piece, n);
        state = g4_grammar_read(g, state, token);
        if (state == 0) return -1;
        r->tokens++;
    }
    return 0;
}

#endif
