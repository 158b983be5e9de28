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

/* ---- What must hold ---------------------------------------------------------------------------------------- */

static void g4_rules_wrong(const char *what, const char *rules, const char *text)
{
    fprintf(stderr, "%s\nrules: %s\ntext: %s\n", what, rules, text != NULL ? text : "");
    __builtin_trap();
}

/* Text between control tokens is the grammar's as bytes only where no name of such a token stands in it. */
static void g4_rules_again(g4_grammar *g, const g4_tokenizer *t, const char *rules, const g4_buf *text)
{
    g4_trial trial;
    g4_trial_run(&trial, g, t, text->data != NULL ? text->data : "", text->len, 0, 0);
    if (trial.disagrees) g4_rules_wrong("mask and reading disagree", rules, text->data);
    if (trial.err.code == G4_OK && !trial.may_end) g4_rules_wrong("written, and not accepted again", rules, text->data);
}

static void g4_rules_walks(g4_grammar *g, const g4_tokenizer *t, const char *rules)
{
    g4_walk w;
    g4_walk_open(&w, t);
    for (int i = 0; i < G4_RULES_WALKS; i++) {
        g4_buf text = { 0 };
        g4_error err = { 0 };
        int is_whole;
        if (g4_grammar_enter(g, NULL, &err) != G4_OK) g4_rules_wrong(err.message, rules, NULL);
        const char *wrong = g4_walk_text(&w, g, G4_RULES_TOKENS, &text, &is_whole);
        const g4_status st = g4_grammar_leave(g, &err);
        if (wrong != NULL) g4_rules_wrong(wrong, rules, text.data);
        if (st != G4_OK && (st == G4_ERR_MEMORY || err.message[0] == '\0'))
            g4_rules_wrong("no reason", rules, err.message);
        if (st == G4_OK && is_whole) g4_rules_again(g, t, rules, &text);
        g4_buf_free(&text);
    }
    g4_walk_close(&w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static g4_engine *e;
    if (e == NULL &&
        g4_engine_open(&e, &(g4_engine_options) { .model_path = "tests/data/tokenizer_small.g4", .n_threads = 1 },
                       NULL) != G4_OK)
        abort();
    if (size < 1) return 0;
    g4_drawn d = { .data = data + 1, .size = size - 1 };
    if (data[0] & 1)
        g4_draw_rules(&d);
    else
        g4_buf_add(&d.text, data + 1, size - 1);
    g4_grammar *g = NULL;
    g4_error err = { 0 };
    const g4_status st = g4_grammar_from_rules(&g, e, d.text.data, d.text.len, &err);
    if (st != G4_OK && (st == G4_ERR_MEMORY || err.message[0] == '\0'))
        g4_rules_wrong("no reason", d.text.data, err.message);
    if (st == G4_OK) g4_rules_walks(g, g4_engine_tokenizer(e), d.text.data);
    g4_grammar_close(g);
    g4_buf_free(&d.text);
    return 0;
}
