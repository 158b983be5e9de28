/* notation.c - the grammar notation, `name ::= "text" [class] (group) other-name{2,3} | ...`, to a network. It is read
 * into a tree first. Whatever calls no rule is one lexeme then, and so is a rule that comes to no call of itself,
 * unless it gets too large; only what is recursive becomes nodes and calls. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <stdio.h>
#include <string.h>

#define G4_NOTATION_MAX_DEPTH 100 /* of groups */
#define G4_NOTATION_MAX_PUT 20000 /* expressions that a rule may grow by when others are put in place of calls */

typedef enum { G4_NOTE_LEXEME, G4_NOTE_CALL, G4_NOTE_SEQUENCE, G4_NOTE_EITHER, G4_NOTE_REPEAT } g4_note_kind;
typedef struct {
    g4_note_kind kind;
    int32_t first, next; /* child, and the next child of the same parent; -1: none */
    int32_t min, max;    /* REPEAT; max below 0: no end */
    int32_t value;       /* LEXEME: a g4_re; CALL: the rule */
} g4_note;

typedef struct {
    int32_t root;      /* note */
    int32_t next;      /* rule with the same hash of its name, -1: none */
    int32_t callers;   /* the first call of it, -1: none */
    int n_waiting;     /* calls in it of rules that are not settled yet */
    int32_t size;      /* expressions that were made for it */
    uint8_t is_lexeme; /* its calls are replaced by its expression */
} g4_noted_rule;

typedef struct {
    int32_t caller, next; /* next: call of the same rule, -1: none */
} g4_noted_call;

#define G4_N_NAMES 1024
typedef struct {
    g4_net *net;
    g4_scan in;
    g4_note *notes;
    g4_noted_rule *rules; /* those of the network, as long as it is read */
    g4_noted_call *calls;
    int32_t *stack; /* notes that become children of another */
    int n_notes, cap_notes, cap_rules, n_calls, cap_calls, n_stack, cap_stack;
    int32_t names[G4_N_NAMES]; /* first rule by the hash of its name, -1: none */
    int rule, depth;
    int32_t planned; /* expressions that what was put in place of calls so far may come to */
} g4_notation;

static int g4_notation_stops(g4_notation *p)
{
    return g4_net_stops(p->net) || g4_regular_failed(p->net->regular) || p->in.wrong != NULL;
}

static void g4_notation_fail(g4_notation *p, const char *why)
{
    if (!p->net->failed && !g4_regular_failed(p->net->regular)) g4_scan_fail(&p->in, why);
}

/* A growing array gets room for one more; NULL: no memory. */
static void *g4_notation_grow(g4_notation *p, void *array, int n, int *cap, size_t size)
{
    void *grown = p->net->failed ? NULL : g4_array_grow(p->net->a, array, n, cap, size);
    if (grown == NULL && !p->net->failed) p->net->failed = G4_NET_NO_MEMORY;
    return grown;
}

/* ---- Notes --------------------------------------------------------------------------------------- */

/* A new note; 0 after a failure. */
static int32_t g4_note_add(g4_notation *p, g4_note note)
{
    g4_note *notes = g4_notation_grow(p, p->notes, p->n_notes, &p->cap_notes, sizeof *notes);
    if (notes == NULL) return 0;
    p->notes = notes;
    note.next = -1;
    notes[p->n_notes] = note;
    return p->n_notes++;
}

static int32_t g4_note_lexeme(g4_notation *p, g4_re re)
{
    return g4_note_add(p, (g4_note) { .kind = G4_NOTE_LEXEME, .first = -1, .value = re });
}

static void g4_note_push(g4_notation *p, int32_t note)
{
    int32_t *stack = g4_notation_grow(p, p->stack, p->n_stack, &p->cap_stack, sizeof *stack);
    if (stack == NULL) return;
    p->stack = stack;
    stack[p->n_stack++] = note;
}

static int g4_note_is_lexeme(const g4_notation *p, int32_t note) { return p->notes[note].kind == G4_NOTE_LEXEME; }

/* A note of the notes above base, which are taken off: one behind the other. Lexemes that meet become one. */
static int32_t g4_note_sequence(g4_notation *p, int base)
{
    int32_t first = -1;
    while (p->n_stack > base && !g4_notation_stops(p)) {
        const int32_t note = p->stack[--p->n_stack];
        if (first >= 0 && g4_note_is_lexeme(p, note) && g4_note_is_lexeme(p, first)) {
            const g4_re both = g4_re_concat(p->net->regular, p->notes[note].value, p->notes[first].value);
            const int32_t joined = g4_note_lexeme(p, both), next = p->notes[first].next;
            if (!p->net->failed) p->notes[joined].next = next;
            first = joined;
        } else {
            p->notes[note].next = first;
            first = note;
        }
    }
    p->n_stack = base;
    if (p->net->failed) return 0;
    if (first < 0) return g4_note_lexeme(p, G4_RE_EMPTY);
    return p->notes[first].next < 0 ? first : g4_note_add(p, (g4_note) { .kind = G4_NOTE_SEQUENCE, .first = first });
}

/* The same: one of them. All lexemes become one. */
static int32_t g4_note_either(g4_notation *p, int base)
{
    int n = 0;
    int32_t first = -1;
    if (p->net->failed) return 0;
    /* Expressions move to the front of the list, in its place. */
    for (int i = base; i < p->n_stack && !g4_notation_stops(p); i++) {
        const int32_t note = p->stack[i];
        if (g4_note_is_lexeme(p, note)) {
            p->stack[base + n++] = p->notes[note].value;
        } else {
            p->notes[note].next = first;
            first = note;
        }
    }
    const g4_re lexeme = n > 0 ? g4_re_any_of(p->net->regular, p->stack + base, n) : G4_RE_NONE;
    p->n_stack = base;
    if (first < 0) return g4_note_lexeme(p, lexeme);
    if (n > 0) {
        const int32_t note = g4_note_lexeme(p, lexeme);
        if (!p->net->failed) p->notes[note].next = first;
        first = note;
    }
    if (p->net->failed) return 0;
    return p->notes[first].next < 0 ? first : g4_note_add(p, (g4_note) { .kind = G4_NOTE_EITHER, .first = first });
}

static int32_t g4_note_repeat(g4_notation *p, int32_t note, int min, int max)
{
    if (p->net->failed || (min == 1 && max == 1)) return note;
    if (g4_note_is_lexeme(p, note))
        return g4_note_lexeme(p, g4_re_repeat(p->net->regular, p->notes[note].value, min, max));
    if (max == 0) return g4_note_lexeme(p, G4_RE_EMPTY);
    return g4_note_add(p, (g4_note) { .kind = G4_NOTE_REPEAT, .first = note, .min = min, .max = max });
}

/* ---- Reading ------------------------------------------------------------------------------------- */

static int g4_is_name_char(char ch) { return g4_is_letter(ch) || g4_is_digit(ch) || ch == '_' || ch == '-'; }

/* Where the name ends that begins at pos. */
static size_t g4_skip_name(const g4_scan *in, size_t pos)
{
    while (pos < in->n && g4_is_name_char(in->s[pos])) pos++;
    return pos;
}

/* Blanks and comments, which stand between words. */
static size_t g4_skip_space(g4_notation *p, size_t pos)
{
    const g4_scan *in = &p->in;
    for (int in_comment = 0; pos < in->n && (pos % 256 != 0 || !g4_net_stops(p->net)); pos++) {
        if (in->s[pos] == '#')
            in_comment = 1;
        else if (in->s[pos] == '\n')
            in_comment = 0;
        else if (!in_comment && !g4_is_blank(in->s[pos]))
            break;
    }
    return pos;
}

/* The rule of that name, which is made if there is none yet. */
static int g4_notation_rule_named(g4_notation *p, const char *name, size_t n)
{
    g4_net *net = p->net;
    int32_t *head = &p->names[g4_hash_bytes(name, n) % G4_N_NAMES];
    for (int32_t r = *head; r >= 0; r = p->rules[r].next)
        if (net->rules[r].name_len == n && memcmp(net->rules[r].name, name, n) == 0) return r;
    g4_noted_rule *rules = g4_notation_grow(p, p->rules, net->n_rules, &p->cap_rules, sizeof *rules);
    if (rules == NULL) return 0;
    p->rules = rules;
    const int r = g4_net_rule(net, name, n);
    if (net->failed) return 0;
    rules[r] = (g4_noted_rule) { .root = -1, .next = *head, .callers = -1 };
    *head = r;
    return r;
}

/* \U and eight digits of a code point, at pos; 0: something else stands there. */
static int g4_notation_long_escape(g4_notation *p, uint32_t *cp)
{
    g4_scan *in = &p->in;
    if (in->n - in->pos < 2 || in->s[in->pos] != '\\' || in->s[in->pos + 1] != 'U') return 0;
    if (in->n - in->pos < 10 || !g4_hex_read(in->s + in->pos + 2, 8, cp) || *cp > 0x10ffff ||
        (*cp >= 0xd800 && *cp <= 0xdfff))
        g4_notation_fail(p, "a bad \\U escape");
    else
        in->pos += 10;
    return 1;
}

/* One character or named class, as an expression. */
static g4_re g4_notation_char(g4_notation *p)
{
    g4_regular *r = p->net->regular;
    g4_class k = { 0 };
    uint32_t cp = 0;
    if (g4_notation_long_escape(p, &cp) || !g4_scan_char(&p->in, &cp, &k)) g4_class_add(r, &k, cp, cp);
    g4_class_settle(r, &k);
    const g4_re re = p->in.wrong == NULL ? g4_re_class(r, &k, G4_RAW) : G4_RE_NONE;
    g4_class_free(r, &k);
    return re;
}

/* "..." at pos. */
static int32_t g4_notation_text(g4_notation *p)
{
    const int base = p->n_stack;
    p->in.pos++;
    while (p->in.pos < p->in.n && p->in.s[p->in.pos] != '"' && !g4_notation_stops(p))
        g4_note_push(p, g4_notation_char(p));
    if (p->in.pos >= p->in.n) g4_notation_fail(p, "a text without its closing quote");
    p->in.pos++;
    g4_re re = G4_RE_EMPTY;
    while (p->n_stack > base && !g4_notation_stops(p)) re = g4_re_concat(p->net->regular, p->stack[--p->n_stack], re);
    p->n_stack = base;
    return g4_note_lexeme(p, re);
}

/* [...] or . at pos. */
static int32_t g4_notation_class(g4_notation *p)
{
    g4_regular *r = p->net->regular;
    g4_scan *in = &p->in;
    g4_class k = { 0 };
    if (in->s[in->pos] == '.') { /* anything but the end of a line */
        in->pos++;
        g4_class_add(r, &k, '\n', '\n');
        g4_class_add(r, &k, '\r', '\r');
        g4_class_settle(r, &k);
        g4_class_negate(r, &k);
    } else {
        const size_t first = in->pos + 1 + (size_t)(in->n - in->pos >= 2 && in->s[in->pos + 1] == '^');
        if (first < in->n && in->s[first] == ']') {
            in->pos = first;
            g4_notation_fail(p, "an empty class");
        } else {
            g4_scan_class(in, &k);
        }
    }
    const g4_re re = in->wrong == NULL ? g4_re_class(r, &k, G4_RAW) : G4_RE_NONE;
    g4_class_free(r, &k);
    return g4_note_lexeme(p, re);
}

/* A call of the rule whose name is at pos. */
static int32_t g4_notation_call(g4_notation *p)
{
    const size_t start = p->in.pos;
    p->in.pos = g4_skip_name(&p->in, start);
    const int r = g4_notation_rule_named(p, p->in.s + start, p->in.pos - start);
    g4_noted_call *calls = g4_notation_grow(p, p->calls, p->n_calls, &p->cap_calls, sizeof *calls);
    if (calls == NULL) return 0;
    p->calls = calls;
    calls[p->n_calls] = (g4_noted_call) { .caller = p->rule, .next = p->rules[r].callers };
    p->rules[r].callers = p->n_calls++;
    p->rules[p->rule].n_waiting++;
    return g4_note_add(p, (g4_note) { .kind = G4_NOTE_CALL, .first = -1, .value = r });
}

static int32_t g4_notation_alternatives(g4_notation *p);

/* (...) at pos. */
static int32_t g4_notation_group(g4_notation *p)
{
    if (p->depth++ > G4_NOTATION_MAX_DEPTH) g4_notation_fail(p, "nested more than 100 deep");
    p->in.pos++;
    const int32_t note = p->in.wrong == NULL ? g4_notation_alternatives(p) : 0;
    p->depth--;
    if (!g4_scan_next_is(&p->in, ')')) g4_notation_fail(p, "a group without )");
    p->in.pos++;
    return note;
}

static int32_t g4_notation_atom(g4_notation *p)
{
    const char ch = p->in.s[p->in.pos];
    if (ch == '(') return g4_notation_group(p);
    if (ch == '[' || ch == '.') return g4_notation_class(p);
    if (ch == '"') return g4_notation_text(p);
    if (g4_is_name_char(ch)) return g4_notation_call(p);
    g4_notation_fail(p, "expected a text in quotes, a class, a name or a group");
    return 0;
}

/* {m} {m,} {,n} {m,n} at pos; max < 0: no end. */
static void g4_notation_counts(g4_notation *p, int *min, int *max)
{
    g4_scan *in = &p->in;
    int counts[2] = { 0, -1 }, which = 0, n_digits[2] = { 0, 0 };
    for (in->pos++; in->pos < in->n && in->s[in->pos] != '}'; in->pos++) {
        const char ch = in->s[in->pos];
        if (ch == ',' && which == 0) {
            which = 1;
        } else if (g4_is_digit(ch) && n_digits[which] < 8) {
            counts[which] = (n_digits[which] == 0 ? 0 : counts[which] * 10) + (ch - '0');
            n_digits[which]++;
        } else if (!g4_is_blank(ch)) {
            g4_notation_fail(p, g4_is_digit(ch) ? "a count in {m,n} has at most 8 digits" : "a bad {m,n}");
            return;
        }
    }
    if (in->pos >= in->n || n_digits[0] + n_digits[1] == 0) {
        g4_notation_fail(p, "a bad {m,n}");
        return;
    }
    in->pos++;
    *min = counts[0];
    *max = counts[which];
    if (*max >= 0 && *max < *min) g4_notation_fail(p, "{m,n} with n below m");
}

/* * + ? or {...} at pos, if there is one; max < 0: no end. */
static void g4_notation_quantifier(g4_notation *p, int *min, int *max)
{
    g4_scan *in = &p->in;
    in->pos = g4_skip_space(p, in->pos);
    *min = *max = 1;
    if (in->pos >= in->n || !g4_is_one_of("*+?{", in->s[in->pos])) return;
    const char ch = in->s[in->pos];
    if (ch == '{') {
        g4_notation_counts(p, min, max);
        return;
    }
    in->pos++;
    *min = ch == '+';
    *max = ch == '?' ? 1 : -1;
}

/* Does the sequence end here? */
static int g4_notation_is_end(g4_notation *p)
{
    const g4_scan *in = &p->in;
    if (in->pos >= in->n || in->s[in->pos] == '|' || in->s[in->pos] == ')') return 1;
    if (!g4_is_name_char(in->s[in->pos])) return 0;
    const size_t next = g4_skip_space(p, g4_skip_name(in, in->pos)); /* the next rule's name ends this one */
    return in->n - next >= 3 && memcmp(in->s + next, "::=", 3) == 0;
}

static int32_t g4_notation_sequence(g4_notation *p)
{
    const int base = p->n_stack;
    for (;;) {
        int min, max;
        p->in.pos = g4_skip_space(p, p->in.pos);
        if (g4_notation_stops(p) || g4_notation_is_end(p)) break;
        int32_t note = g4_notation_atom(p);
        if (!g4_notation_stops(p)) {
            g4_notation_quantifier(p, &min, &max);
            note = g4_note_repeat(p, note, min, max);
        }
        g4_note_push(p, note);
    }
    return !g4_notation_stops(p) ? g4_note_sequence(p, base) : 0;
}

static int32_t g4_notation_alternatives(g4_notation *p)
{
    const int base = p->n_stack;
    for (;;) {
        const int32_t note = g4_notation_sequence(p);
        if (g4_notation_stops(p)) return 0;
        g4_note_push(p, note);
        if (!g4_scan_next_is(&p->in, '|')) return g4_note_either(p, base);
        p->in.pos++;
    }
}

/* name ::= alternatives, at pos. */
static void g4_notation_rule(g4_notation *p)
{
    g4_net *net = p->net;
    g4_scan *in = &p->in;
    const size_t start = in->pos, end = g4_skip_name(in, start);
    if (end == start) {
        g4_notation_fail(p, "expected the name of a rule");
        return;
    }
    p->rule = g4_notation_rule_named(p, in->s + start, end - start);
    in->pos = g4_skip_space(p, end);
    if (in->n - in->pos < 3 || memcmp(in->s + in->pos, "::=", 3) != 0) {
        g4_notation_fail(p, "expected ::=");
        return;
    }
    if (net->failed) return;
    if (net->rules[p->rule].is_defined) {
        in->pos = start;
        g4_notation_fail(p, "this rule is defined already");
        return;
    }
    in->pos += 3;
    net->rules[p->rule].is_defined = 1;
    if (net->root < 0 || (end - start == 4 && memcmp(in->s + start, "root", 4) == 0)) net->root = p->rule;
    const int32_t root = g4_notation_alternatives(p);
    if (!g4_notation_stops(p)) p->rules[p->rule].root = root;
    if (g4_scan_next_is(in, ')')) g4_notation_fail(p, "unexpected )");
}

/* ---- Rules that are lexemes ---------------------------------------------------------------------- */

/* The note with expressions in place of calls where they can stand. The depth of the calls is that of the groups. */
static int32_t g4_notation_put(g4_notation *p, int32_t note)
{
    const g4_note k = p->notes[note];
    const int base = p->n_stack;
    if (k.kind == G4_NOTE_CALL) {
        const g4_noted_rule *r = &p->rules[k.value];
        if (!r->is_lexeme || p->planned + r->size > G4_NOTATION_MAX_PUT) return note;
        p->planned += r->size;
        return g4_note_lexeme(p, p->notes[r->root].value);
    }
    if (k.kind == G4_NOTE_LEXEME) return note;
    if (k.kind == G4_NOTE_REPEAT) {
        const int32_t child = g4_notation_put(p, k.first);
        return g4_note_repeat(p, child, k.min, k.max);
    }
    for (int32_t child = k.first, next; child >= 0 && !g4_net_stops(p->net); child = next) {
        next = p->notes[child].next;
        g4_note_push(p, g4_notation_put(p, child));
    }
    return k.kind == G4_NOTE_SEQUENCE ? g4_note_sequence(p, base) : g4_note_either(p, base);
}

/* All calls in a rule are of rules that are settled, or it is recursive: settle it. */
static void g4_notation_settle(g4_notation *p, int rule)
{
    const int32_t before = g4_regular_size(p->net->regular);
    p->planned = 0;
    const int32_t root = g4_notation_put(p, p->rules[rule].root);
    if (p->net->failed || g4_regular_failed(p->net->regular)) return;
    g4_noted_rule *r = &p->rules[rule];
    r->root = root;
    r->size = g4_max_int(g4_regular_size(p->net->regular) - before, p->planned) + 1;
    r->is_lexeme = r->n_waiting == 0 && g4_note_is_lexeme(p, root) && r->size <= G4_NOTATION_MAX_PUT;
}

/* Settle all rules, those first that others call. */
static void g4_notation_settle_all(g4_notation *p)
{
    g4_net *net = p->net;
    int32_t *ready = g4_alloc(net->a, (size_t)net->n_rules + 1, sizeof *ready);
    int n = 0;
    if (ready == NULL) net->failed = G4_NET_NO_MEMORY;
    for (int r = 0; r < net->n_rules && !net->failed; r++)
        if (p->rules[r].n_waiting == 0) ready[n++] = r;
    for (int i = 0; i < n && !g4_net_stops_now(net); i++) {
        g4_notation_settle(p, ready[i]);
        for (int32_t c = p->rules[ready[i]].callers; c >= 0; c = p->calls[c].next)
            if (--p->rules[p->calls[c].caller].n_waiting == 0) ready[n++] = p->calls[c].caller;
    }
    for (int r = 0; r < net->n_rules && !g4_net_stops_now(net); r++)
        if (p->rules[r].n_waiting > 0) g4_notation_settle(p, r);
    g4_free(net->a, ready);
}

/* ---- The network --------------------------------------------------------------------------------- */

static void g4_notation_emit(g4_notation *p, int32_t note, int32_t from, int32_t to);

/* A repeat of what is no lexeme: each of a number of times calls a rule of its own. */
static void g4_notation_emit_repeat(g4_notation *p, const g4_note *k, int32_t from, int32_t to)
{
    g4_net *net = p->net;
    const int32_t begin = g4_net_node(net), end = g4_net_node(net); /* no others' edges are there */
    g4_net_empty(net, from, begin);
    g4_net_empty(net, end, to);
    if (k->min <= 1 && (k->max < 0 || k->max == 1)) {
        g4_notation_emit(p, k->first, begin, end);
        if (k->min == 0) g4_net_empty(net, begin, end);
        if (k->max < 0) g4_net_empty(net, end, begin);
        return;
    }
    const int r = g4_net_rule(net, net->rules[p->rule].name, net->rules[p->rule].name_len);
    if (net->failed) return;
    g4_notation_emit(p, k->first, net->rules[r].start, net->rules[r].end);
    int32_t pos = begin;
    for (int i = 0; i < g4_max_int(k->min, k->max) && !g4_net_stops(net); i++) {
        const int32_t next = g4_net_node(net);
        if (i >= k->min) g4_net_empty(net, pos, end);
        g4_net_call(net, pos, next, r);
        pos = next;
    }
    if (k->max < 0) g4_net_call(net, pos, pos, r);
    g4_net_empty(net, pos, end);
}

/* What a note says, from node to node. The depth of the calls is that of the groups. */
static void g4_notation_emit(g4_notation *p, int32_t note, int32_t from, int32_t to)
{
    g4_net *net = p->net;
    const g4_note k = p->notes[note];
    if (g4_net_stops(net)) return;
    switch (k.kind) {
    case G4_NOTE_LEXEME: g4_net_lexeme(net, from, to, k.value); break;
    case G4_NOTE_CALL: g4_net_call(net, from, to, k.value); break;
    case G4_NOTE_REPEAT: g4_notation_emit_repeat(p, &k, from, to); break;
    case G4_NOTE_EITHER:
        for (int32_t child = k.first; child >= 0; child = p->notes[child].next) g4_notation_emit(p, child, from, to);
        break;
    case G4_NOTE_SEQUENCE:
        for (int32_t child = k.first, here = from, next; child >= 0; child = p->notes[child].next, here = next) {
            next = p->notes[child].next < 0 ? to : g4_net_node(net);
            g4_notation_emit(p, child, here, next);
        }
    }
}

/* ---- All of it ----------------------------------------------------------------------------------- */

static void g4_notation_read(g4_notation *p)
{
    memset(p->names, -1, sizeof p->names);
    p->net->root = -1;
    for (;;) {
        p->in.pos = g4_skip_space(p, p->in.pos);
        if (p->in.pos >= p->in.n || g4_notation_stops(p) || g4_net_stops_now(p->net)) return;
        g4_notation_rule(p);
    }
}

/* What is wrong with what was read. */
static g4_status g4_notation_check(const g4_notation *p, g4_error *err)
{
    const g4_net *net = p->net;
    const g4_scan *in = &p->in;
    if (in->wrong != NULL && !net->failed) {
        size_t line, column;
        g4_text_place(in->s, in->n, in->pos, &line, &column, net->asker.halt);
        return g4_fail(err, G4_ERR_FORMAT, "grammar, line %zu column %zu: %s", line, column, in->wrong);
    }
    if (net->failed || g4_regular_failed(net->regular)) return G4_OK; /* the end says so */
    if (net->root < 0) return g4_fail(err, G4_ERR_FORMAT, "grammar: no rules");
    for (int r = 0; r < net->n_rules; r++)
        if (!net->rules[r].is_defined)
            return g4_fail(err, G4_ERR_FORMAT, "grammar: the rule %.*s is used and not defined",
                           (int)net->rules[r].name_len, net->rules[r].name);
    return G4_OK;
}

static g4_status g4_notation_make(g4_net *net, const char *s, size_t n, g4_error *err)
{
    g4_notation p = { .net = net, .in = { .r = net->regular, .s = s, .n = n } };
    g4_notation_read(&p);
    const g4_status st = g4_notation_check(&p, err);
    if (st == G4_OK && !net->failed && !g4_regular_failed(net->regular)) g4_notation_settle_all(&p);
    const int n_rules = net->n_rules; /* repeats make more */
    for (int r = 0; r < n_rules && st == G4_OK && !g4_net_stops_now(net) && !g4_regular_failed(net->regular); r++) {
        p.rule = r;
        g4_notation_emit(&p, p.rules[r].root, net->rules[r].start, net->rules[r].end);
    }
    g4_free(net->a, p.notes);
    g4_free(net->a, p.rules);
    g4_free(net->a, p.calls);
    g4_free(net->a, p.stack);
    return st;
}

g4_status g4_grammar_rules(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t, const char *rules,
                           size_t len, g4_halt *halt, g4_error *err)
{
    g4_grammar *g;
    *out = NULL;
    g4_status st = g4_grammar_new(&g, a, t, halt, err);
    if (st != G4_OK) return st;
    st = g4_notation_make(g4_grammar_net(g), rules, len, err);
    return g4_grammar_finish(out, g, st, "grammar", err);
}

g4_status g4_grammar_from_rules(g4_grammar **out, const g4_engine *e, const char *rules, size_t len,
                                const g4_limits *limits, g4_error *err)
{
    g4_halt halt;
    const g4_status st = g4_grammar_check(out, e, rules, "rules", limits, &halt, err);
    if (st != G4_OK) return st;
    return g4_grammar_rules(out, g4_engine_allocator(e), g4_engine_tokenizer(e), rules, len > 0 ? len : strlen(rules),
                            &halt, err);
}
