/* Fuzz the grammar notation: what compiles has masks without dead ends, and what is written under it is accepted again,
 * cut into other tokens. What does not compile says why. Byte 0 chooses whether the rest is the text of the rules or
 * choices of which they are made. Run from the repository root: grammars read tests/data/tokenizer_small.g4. */
#include "walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { G4_RULES_WALKS = 3, G4_RULES_TOKENS = 40 };

/* ---- Rules out of choices ---------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *data;
    size_t size, pos;
    g4_buf text;
} g4_drawn;

static unsigned g4_draw(g4_drawn *d, unsigned n) { return d->pos < d->size ? d->data[d->pos++] % n : 0; }

static void g4_draw_expression(g4_drawn *d, int depth)
{
    static const char *const atoms[] = { "\"a\"", "\"(\"", "\")\"", "\"ab\"", "[a-c]", "[^a]",      ".",
                                         "root",  "s",     "t",     "\"\"",   "\"é\"", "[\\n\\x41]" };
    static const char *const repeats[] = { "", "", "", "", "*", "+", "?", "{2}", "{0,3}", "{1,}" };
    const unsigned n_alternatives = 1 + g4_draw(d, 3);
    for (unsigned i = 0; i < n_alternatives; i++) {
        const unsigned n = 1 + g4_draw(d, 3);
        if (i > 0) g4_buf_str(&d->text, " | ");
        for (unsigned k = 0; k < n; k++) {
            const unsigned atom = g4_draw(d, 16);
            if (k > 0) g4_buf_str(&d->text, " ");
            if (atom < sizeof atoms / sizeof *atoms || depth > 3) {
                g4_buf_str(&d->text, atoms[atom % (sizeof atoms / sizeof *atoms)]);
            } else {
                g4_buf_str(&d->text, "(");
                g4_draw_expression(d, depth + 1);
                g4_buf_str(&d->text, ")");
            }
            g4_buf_str(&d->text, repeats[g4_draw(d, sizeof repeats / sizeof *repeats)]);
        }
    }
}

static void g4_draw_rules(g4_drawn *d)
{
    static const char *const names[] = { "root ::= ", "s ::= ", "t ::= " };
    for (int i = 0; i < 3; i++) {
        g4_buf_str(&d->text, names[i]);
        g4_draw_expression(d, 0);
        g4_buf_str(&d->text, "\n");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g4_engine *e = g4_walk_engine();
    if (size < 1) return 0;
    g4_drawn d = { .data = data + 1, .size = size - 1 };
    if (data[0] & 1)
        g4_draw_rules(&d);
    else
        g4_buf_add(&d.text, data + 1, size - 1);
    g4_grammar *g = NULL;
    g4_error err = { 0 };
    const g4_status st = g4_grammar_from_rules(&g, e, d.text.data, d.text.len, NULL, &err);
    g4_walk_check_reason(st, d.text.data, &err);
    const g4_walk_plan plan = { .g = g,
                                .again = g,
                                .t = g4_engine_tokenizer(e),
                                .source = d.text.data,
                                .n_texts = G4_RULES_WALKS,
                                .max_tokens = G4_RULES_TOKENS };
    if (st == G4_OK) g4_walk_all(&plan);
    g4_grammar_close(g);
    g4_buf_free(&d.text);
    return 0;
}
