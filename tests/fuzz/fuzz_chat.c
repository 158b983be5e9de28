/* Fuzz what comes from outside into chat/: JSON, conversations, box answers, schemas and grammars. Byte 0 chooses the
 * door and its options, the rest is the text. Run from the repository root: grammars read
 * tests/data/tokenizer_small.g4. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sampler.h"
#include "vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static g4_tokenizer g4_fuzz_vocab;
static uint8_t *g4_fuzz_vocab_data;

static void g4_fuzz_grammar(g4_grammar *g)
{
    g4_sampler r = { .state = 1 };
    g4_buf text = { 0 };
    g4_tokens ids = { 0 };
    int whole = g4_sample_text(&r, g, &g4_fuzz_vocab, 24, &text);
    if (whole < 0) __builtin_trap(); /* a dead end */
    /* what was written can be read again, token by token, and the mask agrees */
    if (text.len > 0 && strstr(text.data, "<|") == NULL) {
        int32_t state = g4_grammar_start(g);
        g4_tokenizer_encode(&g4_fuzz_vocab, NULL, text.data, text.len, 0, &ids, NULL, NULL);
        for (size_t i = 0; i < ids.n && state != 0; i++) {
            const uint32_t *mask = g4_grammar_mask(g, state);
            int allowed = (int)(mask[ids.ids[i] / 32] >> (ids.ids[i] % 32) & 1);
            state = g4_grammar_read(g, state, ids.ids[i]);
            if (allowed != (state != 0)) __builtin_trap();
        }
        if (state == 0) __builtin_trap();
        g4_free(NULL, ids.ids);
    }
    g4_buf_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const templates[] = { "31b-2026-07", "e2b-2026-07", "31b-2026-04" };
    if (size < 1) return 0;
    if (g4_fuzz_vocab_data == NULL) g4_fuzz_vocab_data = g4_vocab_open(&g4_fuzz_vocab, "tests/data/tokenizer_small.g4");
    if (g4_fuzz_vocab_data == NULL) abort();
    char *text = malloc(size); /* of its own, so that reading over its end is seen */
    if (text == NULL) return 0;
    memcpy(text, data + 1, size - 1);
    size--;
    if (data[0] % 4 == 0) {
        g4_chat *c;
        g4_chat_options opt = { .template_name = templates[data[0] / 4 % 3],
                                .openai = data[0] >> 6 & 1,
                                .thinking = data[0] >> 7 };
        if (g4_chat_parse(&c, NULL, text, size, &opt, NULL) == G4_OK) {
            g4_chat_medium m;
            for (int i = 0; i < g4_chat_n_media(c); i++) g4_chat_media(c, i, &m, NULL);
        }
        g4_chat_close(c);
    } else if (data[0] % 4 == 1) {
        g4_box *b;
        int n;
        if (g4_boxes_read(&b, &n, text, size, 640, 480, NULL, NULL) == G4_OK) g4_boxes_free(b, n, NULL);
    } else {
        g4_grammar *g;
        g4_status st = data[0] % 4 == 2 ? g4_grammar_schema(&g, NULL, &g4_fuzz_vocab, text, size, NULL, NULL, NULL)
                                        : g4_grammar_rules(&g, NULL, &g4_fuzz_vocab, text, size, NULL, NULL);
        if (st == G4_OK) g4_fuzz_grammar(g);
        g4_grammar_close(g);
    }
    free(text);
    return 0;
}
