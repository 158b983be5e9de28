/* bench_schema VOCAB.g4 [SECONDS] - what constrained output costs for each token, over the real vocabulary, on one
 * core.
 *
 * Random sentences are written under each schema by a model that knows nothing. Time is that of the mask and of reading
 * the token, not of the sampler. "first" is the first text under a new grammar, with nothing cached; "later" are the
 * following ones. */
#define _GNU_SOURCE 1 /* clock_gettime under -std=c11 */
#include <time.h>

#include "sampler.h"
#include "vocab.h"

static double g4_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* other programs do not count */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct {
    long tokens;
    double seconds, worst;
} g4_cost;

/* One text of at most `max` tokens; the tokens are random, but mostly short plain ones, so that strings come to an end.
 */
static void g4_write(g4_grammar *g, const g4_tokenizer *t, g4_sampler *r, int max, g4_cost *cost)
{
    int32_t state = g4_grammar_start(g);
    for (int i = 0; i < max; i++) {
        double start = g4_now();
        state = g4_grammar_settle(g, state);
        const uint32_t *mask = g4_grammar_mask(g, state);
        double used = g4_now() - start;
        if (mask == NULL || (g4_grammar_accepts(g, state) && g4_sampler_random(r, 2) == 0)) break;
        g4_token token = -1;
        char piece[256];
        int special;
        for (int tries = 0; tries < 2000 && token < 0; tries++) { /* as a model would: tokens that fit, at random */
            g4_token id = (g4_token)g4_sampler_random(r, t->n_vocab);
            if (mask[id / 32] >> (id % 32) & 1) token = id;
        }
        for (g4_token id = 0; id < (g4_token)t->n_vocab && (token < 0 || g4_sampler_random(r, 4000) == 0); id++)
            if (mask[id / 32] >> (id % 32) & 1) token = id;
        for (g4_token id = 0; id < (g4_token)t->n_vocab && i % 12 == 11;
             id++) /* close strings and lists now and then */
            if ((mask[id / 32] >> (id % 32) & 1) && g4_tokenizer_piece(t, id, piece, &special) == 1 &&
                (piece[0] == '"' || piece[0] == ']'))
                token = id;
        if (token < 0) break;
        start = g4_now();
        state = g4_grammar_read(g, state, token);
        used += g4_now() - start;
        cost->tokens++;
        cost->seconds += used;
        if (used > cost->worst) cost->worst = used;
        if (state == 0) break;
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name, *schema;
    } cases[] = {
        { "person", "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":\"integer\","
                    "\"minimum\":0,\"maximum\":150},"
                    "\"email\":{\"type\":\"string\"},\"tags\":{\"type\":\"array\",\"items\":{\"type\":\"string\"}}},"
                    "\"required\":[\"name\",\"age\",\"tags\"]}" },
        { "any JSON", "{}" },
        { "short strings", "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"minLength\":3,\"maxLength\":40}}" },
        { "long string", "{\"type\":\"string\",\"maxLength\":2000}" },
        { "enum of 200", NULL },
        { "pattern",
          "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"pattern\":\"^[A-Z][a-z]+( [A-Z][a-z]+)*$\"}}" },
        { "tree", "{\"$ref\":\"#/$defs/"
                  "n\",\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"value\":{\"type\":\"number\"},\"label\":"
                  "{\"type\":"
                  "\"string\"},\"children\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
                  "n\"}}},\"required\":[\"value\",\"label\",\"children\"]}}}" },
    };
    g4_tokenizer t;
    uint8_t *blob = argc >= 2 ? g4_vocab_open(&t, argv[1]) : NULL;
    double seconds = argc >= 3 ? atof(argv[2]) : 1.0;
    if (blob == NULL) {
        fprintf(stderr, "usage: bench_schema VOCAB.g4 [SECONDS for each schema]\n");
        return 2;
    }
    printf("%u tokens\n%-14s %10s | %22s | %30s\n", t.n_vocab, "schema", "compile ms", "first text: ms/token, worst",
           "later: tokens, ms/token, worst");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        g4_buf schema = { 0 };
        if (cases[i].schema != NULL) g4_buf_str(&schema, cases[i].schema);
        for (int k = 0; k < 200 && cases[i].schema == NULL; k++)
            g4_buf_fmt(&schema, "%s\"item number %d of the list\"", k > 0 ? "," : "{\"enum\":[", k * 37);
        if (cases[i].schema == NULL) g4_buf_str(&schema, "]}");
        g4_grammar *g;
        g4_error err;
        double start = g4_now();
        if (g4_grammar_schema(&g, NULL, &t, schema.data, schema.len, NULL, NULL, &err) != G4_OK) {
            printf("%s: %s\n", cases[i].name, err.message);
            return 1;
        }
        double compile = g4_now() - start;
        g4_sampler r = { .state = 5 };
        g4_cost first = { 0 }, later = { 0 };
        while (first.tokens < 1) g4_write(g, &t, &r, 200, &first);
        start = g4_now();
        while (g4_now() - start < seconds) g4_write(g, &t, &r, 200, &later);
        printf("%-14s %10.1f | %6ld %12.3f %9.2f | %10ld %10.4f %9.2f\n", cases[i].name, 1e3 * compile, first.tokens,
               1e3 * first.seconds / (double)first.tokens, 1e3 * first.worst, later.tokens,
               1e3 * later.seconds / (double)later.tokens, 1e3 * later.worst);
        g4_grammar_close(g);
        g4_buf_free(&schema);
    }
    free(blob);
    return 0;
}
