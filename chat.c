/* chat.c - JSON, messages to prompts, replies to parts.
 *
 *  1  JSON
 *  2  Text as Python sees it
 *  3  Prompt rendering
 *  4  Conversations: messages or JSON to a prompt
 *  5  Prompt tokens, and the session that follows a conversation
 *  6  Calls: what a model writes between the markers to JSON
 *  7  Answers: tokens to thoughts, text and calls
 *  8  Grammars: networks of bytes, and the vocabulary against them
 *  9  Patterns and the grammar notation
 * 10  JSON Schema to a grammar
 * 11  Guides: what may come next in an answer, and the answer itself
 * 12  Boxes and points
 */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- 8. Grammars: networks of bytes, and the vocabulary against them --------------------------------------
 *
 * A grammar is a recursive transition network: rules of nodes, joined by edges that read a byte, read nothing, or call
 * a rule and go on at `to`. A position in the text is a set of (node, stack of return nodes); such sets are numbered as
 * they are met, so that reading a byte is mostly a look into a table of 256 (a lazy automaton).
 *
 * The token mask of a position is the union over its nodes. What a token does inside the rule that a node belongs to
 * does not depend on the stack: it is computed once per node, against the whole vocabulary sorted by bytes, and kept,
 * with the list of tokens that run out of the rule's end. Only those are tried against the real stack. */

typedef enum { G4_EDGE_EMPTY, G4_EDGE_BYTES, G4_EDGE_CALL, G4_EDGE_SPECIAL } g4_edge_kind;

typedef struct {
    int32_t to, next;             /* next: index of the next edge of the node, -1: none */
    int32_t what;                 /* CALL: the rule; SPECIAL: a g4_control */
    uint8_t kind, lo, hi;         /* BYTES: lo..hi */
} g4_edge;

typedef struct {
    int32_t first;                /* edge, -1: none */
    int32_t alias;                /* a node with the same tokens ahead; itself in general */
    uint8_t is_end;               /* of its rule */
    uint8_t live;                 /* the rule's end can be reached */
} g4_node;

typedef struct {
    int32_t start, end;
    const char *name;             /* for errors; may be NULL */
    size_t name_len;
    uint8_t live, nullable, mark; /* mark: 0 new, 1 on the path, 2 done, while looking for left recursion */
    uint8_t defined;
} g4_rule;

typedef struct { int32_t start, end; } g4_frag;
typedef struct { int32_t node, stack; } g4_place;

typedef struct {
    int n;
    uint8_t accept, escaped;      /* the grammar ends here; the rule looked at was left */
    uint64_t hash;
    uint32_t *mask;               /* cached; NULL: not yet */
    int32_t next[256];            /* state after a byte; -1: not known yet, 0: none */
    g4_place at[1];               /* n of them, sorted */
} g4_state;

typedef struct {                  /* tokens that a node allows whatever the stack */
    int32_t node;
    int n_inside, n_outside;
    uint32_t *inside;             /* as a list, or a bit mask when n_inside < 0 */
    uint32_t *outside;            /* places in the sorted vocabulary of tokens that leave the rule */
} g4_ahead;

struct g4_grammar {
    const g4_allocator *a;
    const g4_tokenizer *t;
    g4_node *nodes;
    g4_edge *edges;
    g4_rule *rules;
    int n_nodes, cap_nodes, n_edges, cap_edges, n_rules, cap_rules, root;
    int failed;                   /* 1: out of memory, 2: too large */
    /* vocabulary: the tokens that are text, sorted by their bytes */
    int n_words;
    uint32_t *word_id, *word_at;  /* (n_words), (n_words + 1): id, and place of the bytes */
    uint8_t *word_same;           /* (n_words): leading bytes shared with the word before */
    char *word_bytes;
    int32_t byte_at[257];         /* first word that begins with this byte */
    int longest;                  /* characters of the longest word */
    g4_controls controls;
    uint32_t n_vocab;
    /* numbered stacks: a return node on another stack; 0 is empty, 1 the unknown rest below a rule */
    g4_place *stacks;
    int n_stacks, cap_stacks;
    int32_t *stack_slots;
    int n_stack_slots;
    g4_state **states;            /* states[0] is unused: "no state" */
    int n_states, cap_states, n_masks;
    int32_t *state_slots;
    int n_state_slots;
    g4_ahead *ahead;              /* by node, open addressing */
    int n_ahead, n_ahead_slots;
    g4_place *work, *core;        /* scratch of the closure */
    int cap_work, cap_core;
    int32_t *seen;                /* open addressing of work, with stamps */
    uint32_t *seen_stamp, stamp;
    int n_seen_slots;
};

#define G4_MAX_NODES 400000
#define G4_MAX_STATES 8192
#define G4_MAX_MASKS 256
#define G4_STACK_EMPTY 0
#define G4_STACK_UNKNOWN 1

static int32_t g4_net_node(g4_grammar *g)
{
    g4_node *p = g->n_nodes < G4_MAX_NODES ? g4_array_grow(g->a, g->nodes, g->n_nodes, &g->cap_nodes, sizeof *p) : NULL;
    if (p == NULL) {
        if (!g->failed) g->failed = g->n_nodes < G4_MAX_NODES ? 1 : 2;
        return 0;
    }
    g->nodes = p;
    p[g->n_nodes] = (g4_node){ .first = -1, .alias = g->n_nodes };
    return g->n_nodes++;
}

static void g4_net_edge(g4_grammar *g, g4_edge e, int32_t from)
{
    if (g->failed) return;
    g4_edge *p = g4_array_grow(g->a, g->edges, g->n_edges, &g->cap_edges, sizeof *p);
    if (p == NULL) {
        g->failed = 1;
        return;
    }
    g->edges = p;
    e.next = g->nodes[from].first;
    p[g->n_edges] = e;
    g->nodes[from].first = g->n_edges++;
}

static void g4_net_empty(g4_grammar *g, int32_t from, int32_t to)
{
    g4_net_edge(g, (g4_edge){ .to = to, .kind = G4_EDGE_EMPTY }, from);
}
static void g4_net_bytes(g4_grammar *g, int32_t from, int32_t to, int lo, int hi)
{
    g4_net_edge(g, (g4_edge){ .to = to, .kind = G4_EDGE_BYTES, .lo = (uint8_t)lo, .hi = (uint8_t)hi }, from);
}
static void g4_net_call(g4_grammar *g, int32_t from, int32_t to, int rule)
{
    g4_net_edge(g, (g4_edge){ .to = to, .kind = G4_EDGE_CALL, .what = rule }, from);
}
static void g4_net_special(g4_grammar *g, int32_t from, int32_t to, g4_control control)
{
    g4_net_edge(g, (g4_edge){ .to = to, .kind = G4_EDGE_SPECIAL, .what = (int32_t)control }, from);
}

/* A rule with its two ends, to be filled in between. */
static int g4_net_rule(g4_grammar *g, const char *name, size_t name_len)
{
    g4_rule *p = g4_array_grow(g->a, g->rules, g->n_rules, &g->cap_rules, sizeof *p);
    if (p == NULL) {
        g->failed = 1;
        return 0;
    }
    g->rules = p;
    p[g->n_rules] = (g4_rule){ .start = g4_net_node(g), .end = g4_net_node(g), .name = name, .name_len = name_len };
    if (!g->failed) g->nodes[p[g->n_rules].end].is_end = 1;
    return g->n_rules++;
}

/* Text from a node on; returns the node behind it. */
static int32_t g4_net_text(g4_grammar *g, int32_t from, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int32_t to = g4_net_node(g);
        g4_net_bytes(g, from, to, (unsigned char)s[i], (unsigned char)s[i]);
        from = to;
    }
    return from;
}

static int32_t g4_net_str(g4_grammar *g, int32_t from, const char *s) { return g4_net_text(g, from, s, strlen(s)); }

/* A word in a tree of words that grows at `from`: leading bytes are shared. */
static int32_t g4_net_word(g4_grammar *g, int32_t from, const char *s, size_t n)
{
    for (size_t i = 0; i < n && !g->failed; i++) {
        int32_t to = -1;
        for (int32_t e = g->nodes[from].first; e >= 0; e = g->edges[e].next)
            if (g->edges[e].kind == G4_EDGE_BYTES && g->edges[e].lo == (unsigned char)s[i] &&
                g->edges[e].hi == (unsigned char)s[i])
                to = g->edges[e].to;
        if (to < 0) return g4_net_text(g, from, s + i, n - i);
        from = to;
    }
    return from;
}

/* The code points lo..hi as UTF-8: split until each piece is one byte range per place. */
static void g4_net_chars(g4_grammar *g, int32_t from, int32_t to, uint32_t lo, uint32_t hi)
{
    static const uint32_t limits[] = { 0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff };
    if (lo > hi || g->failed) return;
    if (lo >= 0xd800 && lo <= 0xdfff) lo = 0xe000;
    if (hi >= 0xd800 && hi <= 0xdfff) hi = 0xd7ff;
    if (lo > hi) return;
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        if (lo <= limits[i] && hi > limits[i]) {
            g4_net_chars(g, from, to, lo, limits[i]);
            g4_net_chars(g, from, to, limits[i] + 1, hi);
            return;
        }
    char a[4], b[4];
    size_t n = g4_utf8_encode(lo, a);
    for (uint32_t i = 1; i < n; i++) { /* the last i places must run over everything or stand still */
        uint32_t m = (1u << (6 * i)) - 1;
        if ((lo & ~m) == (hi & ~m)) continue;
        if ((lo & m) != 0) {
            g4_net_chars(g, from, to, lo, lo | m);
            g4_net_chars(g, from, to, (lo | m) + 1, hi);
            return;
        }
        if ((hi & m) != m) {
            g4_net_chars(g, from, to, lo, (hi & ~m) - 1);
            g4_net_chars(g, from, to, hi & ~m, hi);
            return;
        }
    }
    g4_utf8_encode(hi, b);
    for (size_t i = 0; i < n; i++) {
        int32_t next = i + 1 < n ? g4_net_node(g) : to;
        g4_net_bytes(g, from, next, (unsigned char)a[i], (unsigned char)b[i]);
        from = next;
    }
}

/* Which nodes can reach the end of their rule, which rules can end at all, or without reading anything. */
static void g4_net_liveness(g4_grammar *g)
{
    int changed = 1;
    while (changed) {
        changed = 0;
        for (int i = g->n_nodes - 1; i >= 0; i--) {
            g4_node *n = &g->nodes[i];
            int live = n->live || n->is_end;
            for (int32_t e = n->first; e >= 0 && !live; e = g->edges[e].next)
                live = g->nodes[g->edges[e].to].live &&
                       (g->edges[e].kind != G4_EDGE_CALL || g->rules[g->edges[e].what].live);
            changed |= live != n->live;
            n->live = (uint8_t)live;
        }
        for (int r = 0; r < g->n_rules; r++) {
            changed |= g->rules[r].live != g->nodes[g->rules[r].start].live;
            g->rules[r].live = g->nodes[g->rules[r].start].live;
        }
    }
    for (int i = 0; i < g->n_nodes; i++) { /* edges that lead nowhere would let the model into a dead end */
        int32_t *link = &g->nodes[i].first;
        while (*link >= 0) {
            g4_edge *e = &g->edges[*link];
            if (!g->nodes[e->to].live || (e->kind == G4_EDGE_CALL && !g->rules[e->what].live)) *link = e->next;
            else link = &e->next;
        }
    }
}

/* Nodes reached from the start of a rule without reading a byte: through empty edges and rules that may be empty.
 * Appends them to list (room for all nodes), using seen (one byte a node, zero before and after). Returns their number.
 */
static int g4_net_leading(const g4_grammar *g, int rule, int32_t *list, uint8_t *seen)
{
    int n = 0;
    list[n++] = g->rules[rule].start;
    seen[list[0]] = 1;
    for (int i = 0; i < n; i++)
        for (int32_t e = g->nodes[list[i]].first; e >= 0; e = g->edges[e].next) {
            const g4_edge *d = &g->edges[e];
            int passes = d->kind == G4_EDGE_EMPTY || (d->kind == G4_EDGE_CALL && g->rules[d->what].nullable);
            if (passes && !seen[d->to]) {
                seen[d->to] = 1;
                list[n++] = d->to;
            }
        }
    for (int i = 0; i < n; i++) seen[list[i]] = 0;
    return n;
}

/* Does a rule call itself before reading anything? Returns it, or -1; -2 when out of memory. Such a rule would grow the
 * stack for ever. */
static int g4_net_left_recursion(g4_grammar *g)
{
    int found = -1, changed = 1, depth = 0;
    int32_t *list = g4_alloc(g->a, (size_t)g->n_nodes + 1, sizeof *list),
            *path = g4_alloc(g->a, (size_t)g->n_rules + 1, sizeof *path);
    uint8_t *seen = g4_alloc(g->a, (size_t)g->n_nodes + 1, 1);
    if (list == NULL || path == NULL || seen == NULL) found = -2;
    while (changed && found == -1) {
        changed = 0;
        for (int r = 0; r < g->n_rules; r++) {
            if (g->rules[r].nullable) continue;
            int n = g4_net_leading(g, r, list, seen);
            for (int i = 0; i < n; i++)
                if (list[i] == g->rules[r].end) changed = g->rules[r].nullable = 1;
        }
    }
    for (int r = 0; r < g->n_rules && found == -1;
         r++) { /* depth first, without recursion: path holds the rules being looked into */
        if (g->rules[r].mark != 0) continue;
        path[depth++] = r;
        while (depth > 0 && found == -1) {
            int top = path[depth - 1], next = -1;
            g->rules[top].mark = 1;
            int n = g4_net_leading(g, top, list, seen);
            for (int i = 0; i < n && next < 0 && found == -1; i++)
                for (int32_t e = g->nodes[list[i]].first; e >= 0; e = g->edges[e].next) {
                    if (g->edges[e].kind != G4_EDGE_CALL) continue;
                    int mark = g->rules[g->edges[e].what].mark;
                    if (mark == 1) found = g->edges[e].what;
                    if (mark == 0) next = g->edges[e].what;
                }
            if (next >= 0) path[depth++] = next;
            else g->rules[path[--depth]].mark = 2;
        }
    }
    g4_free(g->a, list);
    g4_free(g->a, path);
    g4_free(g->a, seen);
    return found;
}

static uint64_t g4_mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

/* The number of the stack with `node` on top of `below`. */
static int32_t g4_stack_push(g4_grammar *g, int32_t node, int32_t below)
{
    if (g->n_stacks * 2 >= g->n_stack_slots) {
        int n = g->n_stack_slots == 0 ? 1024 : g->n_stack_slots * 2;
        int32_t *slots = g4_alloc(g->a, (size_t)n, sizeof *slots);
        if (slots == NULL) {
            g->failed = 1;
            return G4_STACK_EMPTY;
        }
        for (int i = 2; i < g->n_stacks; i++) {
            uint64_t h = g4_mix(g4_mix(1, (uint32_t)g->stacks[i].node), (uint32_t)g->stacks[i].stack);
            while (slots[h & (uint64_t)(n - 1)] != 0) h++;
            slots[h & (uint64_t)(n - 1)] = i;
        }
        g4_free(g->a, g->stack_slots);
        g->stack_slots = slots;
        g->n_stack_slots = n;
    }
    uint64_t h = g4_mix(g4_mix(1, (uint32_t)node), (uint32_t)below);
    for (;; h++) {
        int32_t i = g->stack_slots[h & (uint64_t)(g->n_stack_slots - 1)];
        if (i == 0) break;
        if (g->stacks[i].node == node && g->stacks[i].stack == below) return i;
    }
    g4_place *p = g4_array_grow(g->a, g->stacks, g->n_stacks, &g->cap_stacks, sizeof *p);
    if (p == NULL) {
        g->failed = 1;
        return G4_STACK_EMPTY;
    }
    g->stacks = p;
    p[g->n_stacks] = (g4_place){ node, below };
    g->stack_slots[h & (uint64_t)(g->n_stack_slots - 1)] = g->n_stacks;
    return g->n_stacks++;
}

/* Add a place to the closure in g->work unless it is there. */
static void g4_close_add(g4_grammar *g, int *n, int32_t node, int32_t stack)
{
    if (*n * 2 >= g->n_seen_slots) {
        int slots = g->n_seen_slots == 0 ? 256 : g->n_seen_slots * 2;
        int32_t *seen = g4_alloc(g->a, (size_t)slots, sizeof *seen);
        uint32_t *stamp = g4_alloc(g->a, (size_t)slots, sizeof *stamp);
        if (seen == NULL || stamp == NULL) {
            g4_free(g->a, seen);
            g4_free(g->a, stamp);
            g->failed = 1;
            return;
        }
        g4_free(g->a, g->seen);
        g4_free(g->a, g->seen_stamp);
        g->seen = seen;
        g->seen_stamp = stamp;
        g->n_seen_slots = slots;
        g->stamp = 1;
        for (int i = 0; i < *n; i++) {
            uint64_t h = g4_mix(g4_mix(2, (uint32_t)g->work[i].node), (uint32_t)g->work[i].stack);
            while (stamp[h & (uint64_t)(slots - 1)] == 1) h++;
            seen[h & (uint64_t)(slots - 1)] = i;
            stamp[h & (uint64_t)(slots - 1)] = 1;
        }
    }
    uint64_t h = g4_mix(g4_mix(2, (uint32_t)node), (uint32_t)stack);
    size_t at;
    for (;; h++) {
        at = h & (uint64_t)(g->n_seen_slots - 1);
        if (g->seen_stamp[at] != g->stamp) break;
        if (g->work[g->seen[at]].node == node && g->work[g->seen[at]].stack == stack) return;
    }
    g4_place *p = g4_array_grow(g->a, g->work, *n, &g->cap_work, sizeof *p);
    if (p == NULL) {
        g->failed = 1;
        return;
    }
    g->work = p;
    p[*n] = (g4_place){ node, stack };
    g->seen[at] = *n;
    g->seen_stamp[at] = g->stamp;
    (*n)++;
}

static int g4_place_compare(const void *pa, const void *pb)
{
    const g4_place *a = pa, *b = pb;
    if (a->node != b->node) return a->node < b->node ? -1 : 1;
    return (a->stack > b->stack) - (a->stack < b->stack);
}

/* The number of the state that is this sorted set; a new one is made from it. */
static int32_t g4_state_of(g4_grammar *g, const g4_place *at, int n, int accept, int escaped)
{
    uint64_t hash = g4_mix(3, (uint64_t)accept * 2 + (uint64_t)escaped);
    for (int i = 0; i < n; i++) hash = g4_mix(g4_mix(hash, (uint32_t)at[i].node), (uint32_t)at[i].stack);
    if (g->n_states * 2 >= g->n_state_slots) {
        int slots = g->n_state_slots == 0 ? 1024 : g->n_state_slots * 2;
        int32_t *table = g4_alloc(g->a, (size_t)slots, sizeof *table);
        if (table == NULL) {
            g->failed = 1;
            return 0;
        }
        for (int i = 1; i < g->n_states; i++) {
            uint64_t h = g->states[i]->hash;
            while (table[h & (uint64_t)(slots - 1)] != 0) h++;
            table[h & (uint64_t)(slots - 1)] = i;
        }
        g4_free(g->a, g->state_slots);
        g->state_slots = table;
        g->n_state_slots = slots;
    }
    uint64_t h = hash;
    for (;; h++) {
        int32_t i = g->state_slots[h & (uint64_t)(g->n_state_slots - 1)];
        if (i == 0) break;
        const g4_state *s = g->states[i];
        if (s->hash == hash && s->n == n && s->accept == accept && s->escaped == escaped &&
            (n == 0 || memcmp(s->at, at, (size_t)n * sizeof *at) == 0))
            return i;
    }
    g4_state **list = g4_array_grow(g->a, g->states, g->n_states, &g->cap_states, sizeof *list);
    if (list != NULL) g->states = list;
    g4_state *s = list != NULL ? g4_alloc(g->a, 1, sizeof *s + (size_t)n * sizeof *at) : NULL;
    if (s == NULL) {
        g->failed = 1;
        return 0;
    }
    s->n = n;
    s->accept = (uint8_t)accept;
    s->escaped = (uint8_t)escaped;
    s->hash = hash;
    memset(s->next, -1, sizeof s->next);
    if (n > 0) memcpy(s->at, at, (size_t)n * sizeof *at);
    g->states[g->n_states] = s;
    g->state_slots[h & (uint64_t)(g->n_state_slots - 1)] = g->n_states;
    return g->n_states++;
}

/* Close g->work (n places) over empty edges, calls and returns, and number the result: the places that read something.
 * 0: none. */
static int32_t g4_close(g4_grammar *g, int n)
{
    int n_core = 0, accept = 0, escaped = 0;
    for (int i = 0; i < n && !g->failed; i++) {
        g4_place p = g->work[i];
        int reads = 0;
        if (g->nodes[p.node].is_end) {
            if (p.stack == G4_STACK_EMPTY) accept = 1;
            else if (p.stack == G4_STACK_UNKNOWN) escaped = 1;
            else g4_close_add(g, &n, g->stacks[p.stack].node, g->stacks[p.stack].stack);
        }
        for (int32_t e = g->nodes[p.node].first; e >= 0; e = g->edges[e].next) {
            const g4_edge *d = &g->edges[e];
            if (d->kind == G4_EDGE_EMPTY) {
                g4_close_add(g, &n, d->to, p.stack);
            } else if (d->kind == G4_EDGE_CALL) { /* a call at the very end of a rule needs no way back */
                int tail = g->nodes[d->to].is_end && g->nodes[d->to].first < 0;
                int32_t stack = tail ? p.stack : g4_stack_push(g, d->to, p.stack);
                if (!g->failed) g4_close_add(g, &n, g->rules[d->what].start, stack);
            } else {
                reads = 1;
            }
        }
        if (reads) {
            g4_place *core = g4_array_grow(g->a, g->core, n_core, &g->cap_core, sizeof *core);
            if (core == NULL) {
                g->failed = 1;
                break;
            }
            g->core = core;
            core[n_core++] = p;
        }
    }
    if (g->failed || (n_core == 0 && !accept && !escaped)) return 0;
    if (n_core > 1) qsort(g->core, (size_t)n_core, sizeof *g->core, g4_place_compare);
    return g4_state_of(g, g->core, n_core, accept, escaped);
}

static void g4_close_begin(g4_grammar *g)
{
    if (++g->stamp == 0) {
        memset(g->seen_stamp, 0, (size_t)g->n_seen_slots * sizeof *g->seen_stamp);
        g->stamp = 1;
    }
}

/* The state after reading a byte, or a control token when control is not NONE. 0: it does not fit. */
static int32_t g4_step_slow(g4_grammar *g, int32_t state, int byte, g4_control control)
{
    const g4_state *s = g->states[state];
    int n = 0;
    g4_close_begin(g);
    for (int i = 0; i < s->n && !g->failed; i++)
        for (int32_t e = g->nodes[s->at[i].node].first; e >= 0; e = g->edges[e].next) {
            const g4_edge *d = &g->edges[e];
            int fits = control != G4_CONTROL_NONE ? d->kind == G4_EDGE_SPECIAL && d->what == (int32_t)control
                                                  : d->kind == G4_EDGE_BYTES && byte >= d->lo && byte <= d->hi;
            if (fits) g4_close_add(g, &n, d->to, s->at[i].stack);
        }
    return g4_close(g, n);
}

static inline int32_t g4_step(g4_grammar *g, int32_t state, unsigned char byte)
{
    int32_t next = g->states[state]->next[byte];
    if (next < 0) {
        next = g4_step_slow(g, state, byte, G4_CONTROL_NONE);
        if (!g->failed) g->states[state]->next[byte] = next;
    }
    return next;
}

/* ---- the vocabulary ---- */

typedef struct { uint32_t key, id; const g4_grammar *g; } g4_word;

static int g4_word_compare(const void *pa, const void *pb)
{
    const g4_word *a = pa, *b = pb;
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    const uint32_t *at = a->g->word_at; /* by id while sorting */
    size_t na = at[a->id + 1] - at[a->id], nb = at[b->id + 1] - at[b->id];
    int c = memcmp(a->g->word_bytes + at[a->id], b->g->word_bytes + at[b->id], na < nb ? na : nb);
    if (c != 0) return c;
    if (na != nb) return na < nb ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

/* Sort the plain tokens by their bytes. Returns 0 when out of memory. */
static int g4_vocabulary(g4_grammar *g)
{
    uint32_t n = g->t->n_vocab, used = 0;
    size_t bytes = 0;
    char piece[256];
    int special;
    g->n_vocab = n;
    for (uint32_t i = 0; i < n; i++) bytes += g4_tokenizer_piece(g->t, (g4_token)i, piece, &special);
    g4_word *words = g4_alloc(g->a, n, sizeof *words);
    uint32_t *by_id = g4_alloc(g->a, (size_t)n + 1, sizeof *by_id),
             *sorted = g4_alloc(g->a, (size_t)n + 1, sizeof *sorted);
    char *text = g4_alloc(g->a, bytes + 4, 1), *text_sorted = g4_alloc(g->a, bytes + 4, 1);
    g->word_id = g4_alloc(g->a, n, sizeof *g->word_id);
    g->word_same = g4_alloc(g->a, n, 1);
    int ok = words != NULL && by_id != NULL && sorted != NULL && text != NULL && text_sorted != NULL &&
             g->word_id != NULL && g->word_same != NULL;
    size_t at = 0;
    for (uint32_t i = 0; i < n && ok; i++) {
        size_t len = g4_tokenizer_piece(g->t, (g4_token)i, piece, &special);
        by_id[i] = (uint32_t)at;
        if (special || len == 0) continue;
        memcpy(text + at, piece, len);
        int chars = 0;
        for (size_t k = 0; k < len; k++) chars += ((unsigned char)piece[k] & 0xc0) != 0x80;
        g->longest = g4_max_int(g->longest, chars);
        uint32_t key = 0;
        for (size_t k = 0; k < 4; k++) key = key << 8 | (k < len ? (unsigned char)piece[k] : 0u);
        words[used++] = (g4_word){ key, i, g };
        at += len;
    }
    if (ok) {
        by_id[n] = (uint32_t)at;
        g->word_at = by_id; /* for the comparison; a special token's bytes are empty here */
        g->word_bytes = text;
        if (used > 1) qsort(words, used, sizeof *words, g4_word_compare);
        at = 0;
        for (uint32_t i = 0; i < used; i++) {
            uint32_t id = words[i].id;
            size_t len = by_id[id + 1] - by_id[id], same = 0;
            memcpy(text_sorted + at, text + by_id[id], len);
            size_t before = i > 0 ? at - sorted[i - 1] : 0;
            while (same < len && same < before && text_sorted[sorted[i - 1] + same] == text_sorted[at + same]) same++;
            g->word_id[i] = id;
            g->word_same[i] = (uint8_t)same;
            sorted[i] = (uint32_t)at;
            at += len;
        }
        sorted[used] = (uint32_t)at;
        g->n_words = (int)used;
        g->word_at = sorted;
        g->word_bytes = text_sorted;
        int w = 0;
        for (int b = 0; b <= 256; b++) {
            while (b < 256 ? w < g->n_words && (unsigned char)text_sorted[sorted[w]] < b : w < g->n_words) w++;
            g->byte_at[b] = w;
        }
    } else {
        g4_free(g->a, sorted);
        g4_free(g->a, text_sorted);
    }
    g4_free(g->a, words);
    g4_free(g->a, by_id);
    g4_free(g->a, text);
    return ok;
}

static void g4_bit_set(uint32_t *mask, uint32_t id) { mask[id / 32] |= 1u << (id % 32); }
static size_t g4_mask_words(const g4_grammar *g) { return ((size_t)g->n_vocab + 31) / 32; }

/* The tokens ahead of one node, its rule's rest being unknown. */
static const g4_ahead *g4_ahead_of(g4_grammar *g, int32_t node)
{
    node = g->nodes[node].alias;
    if (g->n_ahead * 2 >= g->n_ahead_slots) {
        int slots = g->n_ahead_slots == 0 ? 256 : g->n_ahead_slots * 2;
        g4_ahead *table = g4_alloc(g->a, (size_t)slots, sizeof *table);
        if (table == NULL) {
            g->failed = 1;
            return NULL;
        }
        for (int i = 0; i < g->n_ahead_slots; i++) {
            if (g->ahead[i].inside == NULL) continue;
            uint64_t h = g4_mix(4, (uint32_t)g->ahead[i].node);
            while (table[h & (uint64_t)(slots - 1)].inside != NULL) h++;
            table[h & (uint64_t)(slots - 1)] = g->ahead[i];
        }
        g4_free(g->a, g->ahead);
        g->ahead = table;
        g->n_ahead_slots = slots;
    }
    uint64_t h = g4_mix(4, (uint32_t)node);
    g4_ahead *found;
    for (;; h++) {
        found = &g->ahead[h & (uint64_t)(g->n_ahead_slots - 1)];
        if (found->inside == NULL) break;
        if (found->node == node) return found;
    }
    /* Not closed: what lies behind empty edges are places of their own in every state that holds this one. */
    g4_place start = { node, G4_STACK_UNKNOWN };
    int32_t state[257];
    state[0] = g4_state_of(g, &start, 1, 0, 0);
    uint32_t *mask = g4_alloc(g->a, g4_mask_words(g), sizeof *mask), *outside = NULL;
    int n_inside = 0, n_outside = 0, cap_outside = 0;
    if (mask == NULL) g->failed = 1;
    uint8_t left[257] = { 0 }; /* by depth: the rule was left at or before it */
    for (int first = 0; first < 256 && !g->failed; first++) {
        if (g->byte_at[first] == g->byte_at[first + 1] || g4_step(g, state[0], (unsigned char)first) == 0) continue;
        int dead = 256; /* the word before died behind so many bytes: what shares more with it dies there too */
        for (int w = g->byte_at[first]; w < g->byte_at[first + 1] && !g->failed; w++) {
            int d = w > g->byte_at[first] ? g->word_same[w] : 0;
            if (d <= dead) {
                const char *s = g->word_bytes + g->word_at[w];
                int len = (int)(g->word_at[w + 1] - g->word_at[w]);
                for (dead = 256; d < len; d++) {
                    state[d + 1] = g4_step(g, state[d], (unsigned char)s[d]);
                    if (state[d + 1] == 0) break;
                    left[d + 1] = left[d] || g->states[state[d + 1]]->escaped;
                }
                if (d == len) {
                    g4_bit_set(mask, g->word_id[w]);
                    n_inside++;
                    continue;
                }
                dead = d;
            }
            if (!left[dead]) continue;
            uint32_t *p = g4_array_grow(g->a, outside, n_outside, &cap_outside, sizeof *p);
            if (p == NULL) {
                g->failed = 1;
                break;
            }
            outside = p;
            p[n_outside++] = (uint32_t)w;
        }
    }
    if (g->failed) {
        g4_free(g->a, mask);
        g4_free(g->a, outside);
        return NULL;
    }
    uint32_t *list = n_inside < 2048 ? g4_alloc(g->a, (size_t)n_inside + 1, sizeof *list) : NULL;
    if (list != NULL) { /* a short list instead of the whole mask */
        int n = 0;
        for (size_t i = 0; i < g4_mask_words(g); i++)
            for (uint32_t bits = mask[i]; bits != 0; bits &= bits - 1) {
                uint32_t b = 0;
                while ((bits >> b & 1u) == 0) b++;
                list[n++] = (uint32_t)i * 32 + b;
            }
        g4_free(g->a, mask);
    }
    *found = (g4_ahead){ node, list != NULL ? n_inside : -1, n_outside, list != NULL ? list : mask, outside };
    g->n_ahead++;
    return found;
}

/* The mask of a state; owned by it. NULL when out of memory. */
const uint32_t *g4_grammar_mask(g4_grammar *g, int32_t state)
{
    if (g->states[state]->mask != NULL) return g->states[state]->mask;
    uint32_t *mask = g4_alloc(g->a, g4_mask_words(g), sizeof *mask);
    if (mask == NULL) {
        g->failed = 1;
        return NULL;
    }
    if (g->n_masks >= G4_MAX_MASKS) {
        for (int i = 1; i < g->n_states; i++) {
            g4_free(g->a, g->states[i]->mask);
            g->states[i]->mask = NULL;
        }
        g->n_masks = 0;
    }
    for (int i = 0; i < g->states[state]->n && !g->failed; i++) {
        int32_t node = g->states[state]->at[i].node;
        for (int32_t e = g->nodes[node].first; e >= 0; e = g->edges[e].next)
            if (g->edges[e].kind == G4_EDGE_SPECIAL && g->controls.id[g->edges[e].what] >= 0)
                g4_bit_set(mask, (uint32_t)g->controls.id[g->edges[e].what]);
        if (i > 0 && g->nodes[g->states[state]->at[i - 1].node].alias == g->nodes[node].alias)
            continue; /* same node, other stack */
        const g4_ahead *ahead = g4_ahead_of(g, node);
        if (ahead == NULL) break;
        if (ahead->n_inside < 0)
            for (size_t k = 0; k < g4_mask_words(g); k++) mask[k] |= ahead->inside[k];
        for (int k = 0; k < ahead->n_inside; k++) g4_bit_set(mask, ahead->inside[k]);
        /* those that leave the rule, against the whole state: the words are sorted, so leading bytes are read once */
        int32_t at[257] = { state };
        int dead = 256; /* as above */
        for (int k = 0; k < ahead->n_outside && !g->failed; k++) {
            uint32_t w = ahead->outside[k];
            const char *s = g->word_bytes + g->word_at[w];
            int len = (int)(g->word_at[w + 1] - g->word_at[w]), d = 0;
            if (k > 0) {
                uint32_t v = ahead->outside[k - 1];
                const char *before = g->word_bytes + g->word_at[v];
                int n = (int)(g->word_at[v + 1] - g->word_at[v]);
                while (d < len && d < n && s[d] == before[d]) d++;
            }
            if (d > dead) continue;
            for (dead = 256; d < len; d++) {
                at[d + 1] = g4_step(g, at[d], (unsigned char)s[d]);
                if (at[d + 1] == 0) break;
            }
            if (d == len) g4_bit_set(mask, g->word_id[w]);
            else dead = d;
        }
    }
    if (g->failed) {
        g4_free(g->a, mask);
        return NULL;
    }
    g->states[state]->mask = mask;
    g->n_masks++;
    return mask;
}

/* Keep memory bounded: forget all states but one, which gets a new number. */
int32_t g4_grammar_settle(g4_grammar *g, int32_t keep)
{
    if (g->n_states < G4_MAX_STATES || keep == 0) return keep;
    g4_state *s = g->states[keep];
    for (int i = 1; i < g->n_states; i++) {
        if (i == keep) continue;
        g4_free(g->a, g->states[i]->mask);
        g4_free(g->a, g->states[i]);
    }
    memset(g->state_slots, 0, (size_t)g->n_state_slots * sizeof *g->state_slots);
    memset(s->next, -1, sizeof s->next);
    g->states[1] = s;
    g->n_states = 2;
    g->n_masks = s->mask != NULL;
    g->state_slots[s->hash & (uint64_t)(g->n_state_slots - 1)] = 1;
    return 1;
}

int g4_grammar_accepts(const g4_grammar *g, int32_t state) { return state > 0 && g->states[state]->accept; }

int32_t g4_grammar_start(g4_grammar *g)
{
    int n = 0;
    g4_close_begin(g);
    g4_close_add(g, &n, g->rules[g->root].start, G4_STACK_EMPTY);
    return g->failed ? 0 : g4_close(g, n);
}

/* The state after a whole token; 0: it does not fit. */
int32_t g4_grammar_read(g4_grammar *g, int32_t state, g4_token token)
{
    char piece[256];
    int special;
    if (state == 0 || token < 0 || (uint32_t)token >= g->n_vocab) return 0;
    size_t n = g4_tokenizer_piece(g->t, token, piece, &special);
    if (special) {
        g4_control control = g4_controls_find(&g->controls, token);
        return control != G4_CONTROL_NONE ? g4_step_slow(g, state, 0, control) : 0;
    }
    for (size_t i = 0; i < n && state != 0; i++) state = g4_step(g, state, (unsigned char)piece[i]);
    return n == 0 ? 0 : state;
}

void g4_grammar_close(g4_grammar *g)
{
    if (g == NULL) return;
    const g4_allocator *a = g->a;
    for (int i = 1; i < g->n_states; i++) {
        g4_free(a, g->states[i]->mask);
        g4_free(a, g->states[i]);
    }
    for (int i = 0; i < g->n_ahead_slots; i++) {
        g4_free(a, g->ahead[i].inside);
        g4_free(a, g->ahead[i].outside);
    }
    void *const blocks[] = { g->nodes,      g->edges,  g->rules,       g->word_id,   g->word_at,     g->word_same,
                             g->word_bytes, g->stacks, g->stack_slots, g->states,    g->state_slots, g->ahead,
                             g->work,       g->core,   g->seen,        g->seen_stamp };
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) g4_free(a, blocks[i]);
    g4_free(a, g);
}

static g4_grammar *g4_grammar_new(const g4_allocator *a, const g4_tokenizer *t)
{
    g4_grammar *g = g4_alloc(a, 1, sizeof *g);
    if (g == NULL) return NULL;
    g->a = a;
    g->t = t;
    g->n_stacks = 2;
    g->cap_stacks = 16;
    g->stacks = g4_alloc(a, 16, sizeof *g->stacks);
    g->n_states = 1;
    g->cap_states = 16;
    g->states = g4_alloc(a, 16, sizeof *g->states);
    if (g->stacks == NULL || g->states == NULL || !g4_vocabulary(g)) {
        g4_grammar_close(g);
        return NULL;
    }
    g4_controls_bind(&g->controls, t);
    return g;
}

/* A built network is checked and made ready for use. `what` names the source in errors. */
static g4_status g4_grammar_finish(g4_grammar *g, const char *what, g4_error *err)
{
    if (g->failed == 2)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "%s: too large: more than %d nodes", what, G4_MAX_NODES);
    if (!g->failed) {
        g4_net_liveness(g);
        if (!g->rules[g->root].live) return g4_fail(err, G4_ERR_ARGUMENT, "%s: nothing can satisfy it", what);
        int r = g4_net_left_recursion(g);
        if (r >= 0)
            return g4_fail(err, G4_ERR_UNSUPPORTED, "%s: %.*s refers to itself before it reads anything", what,
                           g->rules[r].name != NULL ? (int)g->rules[r].name_len : 6,
                           g->rules[r].name != NULL ? g->rules[r].name : "a rule");
        if (r == -2) g->failed = 1;
    }
    return g->failed ? g4_fail(err, G4_ERR_MEMORY, "%s: no memory for the grammar", what) : G4_OK;
}

/* ---- 9. Patterns and the grammar notation -------------------------------------------------------------------
 *
 * One reader for both, since they share classes, groups and quantifiers. A pattern is a regular expression as JSON
 * Schema has it (ECMA 262 without assertions other than ^ and $, without back references); what it matches is written
 * inside a JSON string, so that quotes, backslashes and control characters appear as escapes. Repeated atoms are read
 * again for each copy: copies in place, not calls, keep the tokens ahead independent of the stack. */

typedef enum { G4_RAW, G4_ESCAPED } g4_spelling; /* characters as they are, or as inside a JSON string */

typedef struct {
    g4_grammar *g;
    const char *s;
    size_t n, pos;
    g4_spelling spelling;
    int notation;                 /* the grammar notation; else a regular expression */
    int depth;
    const char *what;             /* for errors */
    g4_status st;
    g4_error *err;
} g4_pattern;

typedef struct { uint32_t lo, hi; } g4_range;
typedef struct { g4_range *r; int n, cap; } g4_class;

static void g4_pattern_fail(g4_pattern *p, const char *why)
{
    if (p->st != G4_OK) return;
    if (p->notation) {
        size_t line = 1, column = 1;
        for (size_t i = 0; i < p->pos && i < p->n; i++) {
            column = p->s[i] == '\n' ? 1 : column + 1;
            line += p->s[i] == '\n';
        }
        p->st = g4_fail(p->err, G4_ERR_FORMAT, "%s, line %zu column %zu: %s", p->what, line, column, why);
    } else {
        p->st = g4_fail(p->err, G4_ERR_UNSUPPORTED, "%s: at character %zu: %s", p->what, p->pos + 1, why);
    }
}

/* The characters lo..hi from node to node, in the spelling asked for. */
static void g4_net_spelled(g4_grammar *g, int32_t from, int32_t to, uint32_t lo, uint32_t hi, g4_spelling spelling)
{
    if (spelling == G4_RAW) {
        g4_net_chars(g, from, to, lo, hi);
        return;
    }
    static const uint32_t plain[][2] = { { 0x20, 0x21 }, { 0x23, 0x5b }, { 0x5d, 0x10ffff } };
    for (size_t i = 0; i < 3; i++) {
        uint32_t a = lo > plain[i][0] ? lo : plain[i][0], b = hi < plain[i][1] ? hi : plain[i][1];
        if (a <= b) g4_net_chars(g, from, to, a, b);
    }
    for (uint32_t cp = lo; cp <= hi && cp <= 0x5c; cp++) {
        static const char names[] = "btn\0fr"; /* \b is 8 */
        char text[8];
        if (cp == '"' || cp == '\\') snprintf(text, sizeof text, "\\%c", (int)cp);
        else if (cp >= 8 && cp <= 13 && cp != 11) snprintf(text, sizeof text, "\\%c", names[cp - 8]);
        else if (cp < 0x20) snprintf(text, sizeof text, "\\u%04x", (unsigned)cp);
        else continue;
        g4_net_empty(g, g4_net_word(g, from, text, strlen(text)), to);
    }
}

static void g4_class_add(g4_pattern *p, g4_class *k, uint32_t lo, uint32_t hi)
{
    g4_range *r = g4_array_grow(p->g->a, k->r, k->n, &k->cap, sizeof *r);
    if (r == NULL) {
        p->g->failed = 1;
        return;
    }
    k->r = r;
    r[k->n++] = (g4_range){ lo, hi };
}

static int g4_range_compare(const void *pa, const void *pb)
{
    const g4_range *a = pa, *b = pb;
    return (a->lo > b->lo) - (a->lo < b->lo);
}

/* Sorted and joined; negated up to `top` when asked. */
static void g4_class_settle(g4_pattern *p, g4_class *k, int negate, uint32_t top)
{
    if (k->n > 1) qsort(k->r, (size_t)k->n, sizeof *k->r, g4_range_compare);
    int n = 0;
    for (int i = 0; i < k->n; i++) {
        if (n > 0 && k->r[i].lo <= k->r[n - 1].hi + 1) {
            if (k->r[i].hi > k->r[n - 1].hi) k->r[n - 1].hi = k->r[i].hi;
        } else {
            k->r[n++] = k->r[i];
        }
    }
    k->n = n;
    if (!negate) return;
    g4_class out = { 0 };
    uint32_t from = 0;
    for (int i = 0; i < n; i++) {
        if (k->r[i].lo > from) g4_class_add(p, &out, from, k->r[i].lo - 1);
        from = k->r[i].hi + 1;
    }
    if (from <= top) g4_class_add(p, &out, from, top);
    g4_free(p->g->a, k->r);
    *k = out;
}

static void g4_class_shorthand(g4_pattern *p, g4_class *k, char kind)
{
    g4_class part = { 0 };
    switch (kind | 0x20) {
    case 'd':
        g4_class_add(p, &part, '0', '9');
        break;
    case 'w':
        g4_class_add(p, &part, '0', '9');
        g4_class_add(p, &part, 'A', 'Z');
        g4_class_add(p, &part, '_', '_');
        g4_class_add(p, &part, 'a', 'z');
        break;
    default:
        g4_class_add(p, &part, 9, 13);
        g4_class_add(p, &part, ' ', ' ');
    }
    /* \D and the like stay in ASCII: dialects differ on the letters and digits beyond it */
    g4_class_settle(p, &part, kind >= 'A' && kind <= 'Z', 0x7f);
    for (int i = 0; i < part.n; i++) g4_class_add(p, k, part.r[i].lo, part.r[i].hi);
    g4_free(p->g->a, part.r);
}

/* One character, escapes resolved. Returns 1 for a shorthand class, whose letter *cp gets. */
static int g4_pattern_char(g4_pattern *p, uint32_t *cp)
{
    size_t k = g4_utf8_decode(p->s + p->pos, p->n - p->pos, cp);
    if (k == 0) {
        g4_pattern_fail(p, p->pos < p->n ? "malformed UTF-8" : "ends too early");
        *cp = 0;
        p->pos = p->n;
        return 0;
    }
    p->pos += k;
    if (*cp != '\\') return 0;
    if (p->pos >= p->n) {
        g4_pattern_fail(p, "a backslash at the end");
        return 0;
    }
    char e = p->s[p->pos++];
    static const char from[] = "nrtfv0", to[] = "\n\r\t\f\v\0";
    if (g4_is_one_of("dDwWsS", e)) {
        *cp = (unsigned char)e;
        return 1;
    }
    if (g4_is_one_of(from, e)) {
        *cp = (unsigned char)to[strchr(from, e) - from];
    } else if (e == 'u' || e == 'x') {
        size_t digits = e == 'u' ? 4 : 2;
        char hex[5] = "0000";
        if (p->n - p->pos >= digits) memcpy(hex + (4 - digits), p->s + p->pos, digits);
        if (p->n - p->pos < digits || !g4_hex_read(hex, 4, cp) || (*cp >= 0xd800 && *cp <= 0xdfff))
            g4_pattern_fail(p, "a bad \\u or \\x escape");
        p->pos += p->n - p->pos < digits ? p->n - p->pos : digits;
    } else if ((e >= 'a' && e <= 'z') || (e >= 'A' && e <= 'Z') || (e >= '1' && e <= '9')) {
        g4_pattern_fail(p, "this escape is not supported");
    } else {
        *cp = (unsigned char)e;
        if (((unsigned char)e & 0x80) != 0) { /* an escaped character beyond ASCII: itself */
            p->pos--;
            p->pos += g4_utf8_decode(p->s + p->pos, p->n - p->pos, cp);
        }
    }
    return 0;
}

/* [...] at pos, into a settled class. */
static void g4_pattern_class(g4_pattern *p, g4_class *k)
{
    int negate = 0, shorthand = 0;
    p->pos++;
    if (p->pos < p->n && p->s[p->pos] == '^') {
        negate = 1;
        p->pos++;
    }
    for (int first = 1; p->st == G4_OK; first = 0) {
        uint32_t lo, hi;
        if (p->pos >= p->n) {
            g4_pattern_fail(p, "a class without ]");
            return;
        }
        if (p->s[p->pos] == ']') {
            if (first) g4_pattern_fail(p, "an empty class");
            p->pos++;
            break;
        }
        if (g4_pattern_char(p, &lo)) {
            g4_class_shorthand(p, k, (char)lo);
            shorthand = 1;
            continue;
        }
        hi = lo;
        if (p->n - p->pos >= 2 && p->s[p->pos] == '-' && p->s[p->pos + 1] != ']') {
            p->pos++;
            if (g4_pattern_char(p, &hi) || hi < lo) g4_pattern_fail(p, "a bad range in a class");
        }
        g4_class_add(p, k, lo, hi);
    }
    g4_class_settle(p, k, negate, negate && shorthand ? 0x7f : 0x10ffff);
}

static int g4_is_name_char(char ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '_' || ch == '-';
}

static void g4_notation_space(g4_pattern *p)
{
    while (p->notation && p->pos < p->n) {
        if (g4_is_one_of(" \t\r\n", p->s[p->pos])) {
            p->pos++;
        } else if (p->s[p->pos] == '#') {
            while (p->pos < p->n && p->s[p->pos] != '\n') p->pos++;
        } else {
            break;
        }
    }
}

/* Behind the atom that begins at pos, without building it. */
static size_t g4_pattern_skip(const g4_pattern *p, size_t at)
{
    int depth = 0;
    for (;;) {
        char ch = at < p->n ? p->s[at] : '\0';
        if (at >= p->n) return p->n;
        if (ch == '[' || (ch == '"' && p->notation)) {
            char end = ch == '[' ? ']' : '"';
            at++;
            while (at < p->n && p->s[at] != end) at += p->s[at] == '\\' ? 2 : 1;
            at++;
        } else if (p->notation && g4_is_name_char(ch)) {
            while (at < p->n && g4_is_name_char(p->s[at])) at++;
        } else if (p->notation && ch == '#') {
            while (at < p->n && p->s[at] != '\n') at++;
        } else if (ch == '\\') {
            at += at + 1 < p->n && p->s[at + 1] == 'u' ? 6 : at + 1 < p->n && p->s[at + 1] == 'x' ? 4 : 2;
        } else {
            depth += ch == '(' ? 1 : ch == ')' ? -1 : 0;
            at++;
            while (at < p->n && ((unsigned char)p->s[at] & 0xc0) == 0x80) at++;
        }
        if (depth <= 0) return at < p->n ? at : p->n;
    }
}

static int32_t g4_pattern_alternatives(g4_pattern *p, int32_t from);

static int g4_rule_named(g4_grammar *g, const char *name, size_t n)
{
    for (int i = 0; i < g->n_rules; i++)
        if (g->rules[i].name_len == n && g->rules[i].name != NULL && memcmp(g->rules[i].name, name, n) == 0) return i;
    return g4_net_rule(g, name, n);
}

/* One atom; returns the node behind it. */
static int32_t g4_pattern_atom(g4_pattern *p, int32_t from)
{
    int32_t to = g4_net_node(p->g);
    g4_class k = { 0 };
    uint32_t cp;
    char ch = p->s[p->pos];
    if (ch == '(') {
        p->pos++;
        if (!p->notation && p->n - p->pos >= 2 && p->s[p->pos] == '?') {
            if (p->s[p->pos + 1] != ':') g4_pattern_fail(p, "lookaround and named groups are not supported");
            p->pos += 2;
        }
        if (p->depth++ > 100) g4_pattern_fail(p, "nested more than 100 deep");
        int32_t end = p->st == G4_OK ? g4_pattern_alternatives(p, from) : from;
        p->depth--;
        if (p->pos >= p->n || p->s[p->pos] != ')') g4_pattern_fail(p, "a group without )");
        p->pos++;
        return end;
    }
    if (ch == '[') {
        g4_pattern_class(p, &k);
    } else if (ch == '.') {
        p->pos++;
        g4_class_add(p, &k, '\n', '\n');
        g4_class_add(p, &k, '\r', '\r');
        if (!p->notation) g4_class_add(p, &k, 0x2028, 0x2029);
        g4_class_settle(p, &k, 1, 0x10ffff);
    } else if (p->notation && ch == '"') {
        p->pos++;
        while (p->pos < p->n && p->s[p->pos] != '"' && p->st == G4_OK) {
            to = g4_net_node(p->g);
            if (g4_pattern_char(p, &cp)) g4_class_shorthand(p, &k, (char)cp);
            else g4_class_add(p, &k, cp, cp);
            for (int i = 0; i < k.n; i++) g4_net_spelled(p->g, from, to, k.r[i].lo, k.r[i].hi, p->spelling);
            k.n = 0;
            from = to;
        }
        if (p->pos >= p->n) g4_pattern_fail(p, "a text without its closing quote");
        p->pos++;
        g4_free(p->g->a, k.r);
        return from;
    } else if (p->notation && g4_is_name_char(ch)) {
        size_t start = p->pos;
        while (p->pos < p->n && g4_is_name_char(p->s[p->pos])) p->pos++;
        g4_net_call(p->g, from, to, g4_rule_named(p->g, p->s + start, p->pos - start));
        return to;
    } else if (p->notation) {
        g4_pattern_fail(p, "expected a text in quotes, a class, a name or a group");
        return to;
    } else if (g4_is_one_of("*+?{", ch)) {
        g4_pattern_fail(p, "nothing to repeat");
        return to;
    } else if (ch == '^' || ch == '$') {
        g4_pattern_fail(p, "^ and $ are supported at the ends of the whole pattern only");
        return to;
    } else if (g4_pattern_char(p, &cp)) {
        g4_class_shorthand(p, &k, (char)cp);
    } else {
        g4_class_add(p, &k, cp, cp);
    }
    for (int i = 0; i < k.n; i++) g4_net_spelled(p->g, from, to, k.r[i].lo, k.r[i].hi, p->spelling);
    g4_free(p->g->a, k.r);
    return to;
}

/* * + ? {m} {m,} {m,n} at pos, if there is one; max < 0: no end. */
static void g4_pattern_quantifier(g4_pattern *p, int *min, int *max)
{
    g4_notation_space(p);
    *min = *max = 1;
    if (p->pos >= p->n) return;
    char ch = p->s[p->pos];
    if (ch == '*' || ch == '+' || ch == '?') {
        p->pos++;
        *min = ch == '+';
        *max = ch == '?' ? 1 : -1;
    } else if (ch == '{') {
        long v[2] = { 0, -1 };
        int at = 0, digits = 0;
        for (p->pos++; p->pos < p->n && p->s[p->pos] != '}'; p->pos++) {
            char d = p->s[p->pos];
            if (d == ',' && at == 0 && digits > 0) {
                at = 1;
                digits = 0;
            } else if (d >= '0' && d <= '9' && digits < 6) {
                v[at] = (digits == 0 ? 0 : v[at] * 10) + (d - '0');
                digits++;
            } else {
                g4_pattern_fail(p, "a bad {m,n}");
                return;
            }
        }
        if (p->pos >= p->n || (at == 0 && digits == 0)) {
            g4_pattern_fail(p, "a bad {m,n}");
            return;
        }
        p->pos++;
        *min = (int)v[0];
        *max = at == 0 ? (int)v[0] : (int)v[1];
        if (*max >= 0 && *max < *min) g4_pattern_fail(p, "{m,n} with n below m");
    } else {
        return;
    }
    if (!p->notation && p->pos < p->n && p->s[p->pos] == '?') p->pos++; /* lazy: the same language */
}

static int32_t g4_pattern_sequence(g4_pattern *p, int32_t from)
{
    for (;;) {
        g4_notation_space(p);
        if (p->pos >= p->n || p->st != G4_OK || p->g->failed || p->s[p->pos] == '|' || p->s[p->pos] == ')') return from;
        if (!p->notation && p->s[p->pos] == '$' && p->depth == 0 && (p->pos + 1 >= p->n || p->s[p->pos + 1] == '|'))
            return from;
        if (p->notation && g4_is_name_char(p->s[p->pos])) { /* the next rule's name ends this one */
            size_t at = g4_pattern_skip(p, p->pos);
            while (at < p->n && g4_is_one_of(" \t\r\n", p->s[at])) at++;
            if (p->n - at >= 3 && memcmp(p->s + at, "::=", 3) == 0) return from;
        }
        size_t start = p->pos, after = g4_pattern_skip(p, start);
        int min, max;
        p->pos = after;
        g4_pattern_quantifier(p, &min, &max);
        size_t end = p->pos;
        for (int i = 0; i < min && p->st == G4_OK && !p->g->failed; i++) {
            p->pos = start;
            from = g4_pattern_atom(p, from);
        }
        if (max < 0) { /* a loop on a node of its own */
            int32_t loop = g4_net_node(p->g), out = g4_net_node(p->g);
            g4_net_empty(p->g, from, loop);
            p->pos = start;
            if (p->st == G4_OK) g4_net_empty(p->g, g4_pattern_atom(p, loop), loop);
            g4_net_empty(p->g, loop, out);
            from = out;
        } else if (max > min) {
            int32_t out = g4_net_node(p->g);
            for (int i = min; i < max && p->st == G4_OK && !p->g->failed; i++) {
                int32_t here = g4_net_node(p->g); /* so that alternatives do not share a node with what stands before */
                g4_net_empty(p->g, from, here);
                g4_net_empty(p->g, here, out);
                p->pos = start;
                from = g4_pattern_atom(p, here);
            }
            g4_net_empty(p->g, from, out);
            from = out;
        } else if (max == 0 && p->st == G4_OK) { /* nothing, but it must be well-formed */
            p->pos = start;
            g4_pattern_atom(p, g4_net_node(p->g));
        }
        if (p->st == G4_OK && p->pos != after) g4_pattern_fail(p, "malformed");
        p->pos = end;
    }
}

static int32_t g4_pattern_alternatives(g4_pattern *p, int32_t from)
{
    int32_t to = g4_net_node(p->g);
    for (;;) {
        int32_t start = g4_net_node(p->g);
        g4_net_empty(p->g, from, start);
        g4_net_empty(p->g, g4_pattern_sequence(p, start), to);
        if (p->pos >= p->n || p->s[p->pos] != '|' || p->st != G4_OK) return to;
        p->pos++;
    }
}

/* Any characters, as often as they like, at a node. */
static void g4_net_anything(g4_grammar *g, int32_t node, g4_spelling spelling)
{
    g4_net_spelled(g, node, node, 0, 0x10ffff, spelling);
}

/* What contains a match of the regular expression, from `from`; returns the node behind it. */
static int32_t g4_net_pattern(g4_grammar *g, int32_t from, const char *s, size_t n, g4_spelling spelling,
                              const char *what, g4_status *st, g4_error *err)
{
    g4_pattern p = { .g = g, .s = s, .n = n, .spelling = spelling, .what = what, .err = err };
    int32_t to = g4_net_node(g);
    for (;;) { /* the alternatives of the whole, each with its own ^ and $ */
        int32_t start = g4_net_node(g), end;
        g4_net_empty(g, from, start);
        if (p.pos < n && s[p.pos] == '^') p.pos++;
        else g4_net_anything(g, start, spelling);
        int32_t begin = g4_net_node(g);
        g4_net_empty(g, start, begin);
        end = g4_pattern_sequence(&p, begin);
        if (p.pos < n && s[p.pos] == '$') {
            p.pos++;
        } else {
            int32_t rest = g4_net_node(g);
            g4_net_empty(g, end, rest);
            g4_net_anything(g, rest, spelling);
            end = rest;
        }
        g4_net_empty(g, end, to);
        if (p.st != G4_OK || p.pos >= n || s[p.pos] != '|') break;
        p.pos++;
    }
    if (p.st == G4_OK && p.pos < n) g4_pattern_fail(&p, "unexpected )");
    *st = p.st;
    return to;
}

static g4_status g4_rules_read(g4_grammar *g, const char *s, size_t n, g4_error *err)
{
    g4_pattern p = { .g = g, .s = s, .n = n, .notation = 1, .what = "grammar", .err = err };
    g->root = -1;
    for (;;) {
        g4_notation_space(&p);
        if (p.pos >= n || p.st != G4_OK || g->failed) break;
        size_t start = p.pos;
        while (p.pos < n && g4_is_name_char(s[p.pos])) p.pos++;
        size_t len = p.pos - start;
        if (len == 0) {
            g4_pattern_fail(&p, "expected the name of a rule");
            break;
        }
        int r = g4_rule_named(g, s + start, len);
        g4_notation_space(&p);
        if (n - p.pos < 3 || memcmp(s + p.pos, "::=", 3) != 0) {
            g4_pattern_fail(&p, "expected ::=");
            break;
        }
        p.pos += 3;
        if (g->failed) break;
        if (g->rules[r].defined) {
            p.pos = start;
            g4_pattern_fail(&p, "this rule is defined already");
            break;
        }
        g->rules[r].defined = 1;
        if (g->root < 0 || (len == 4 && memcmp(s + start, "root", 4) == 0)) g->root = r;
        int32_t end = g4_pattern_alternatives(&p, g->rules[r].start);
        g4_net_empty(g, end, g->rules[r].end);
        if (p.st == G4_OK && p.pos < n && s[p.pos] == ')') g4_pattern_fail(&p, "unexpected )");
    }
    if (p.st != G4_OK) return p.st;
    if (g->root < 0 && !g->failed) return g4_fail(err, G4_ERR_FORMAT, "grammar: no rules");
    for (int r = 0; r < g->n_rules && !g->failed; r++)
        if (!g->rules[r].defined)
            return g4_fail(err, G4_ERR_FORMAT, "grammar: the rule %.*s is used and not defined",
                           (int)g->rules[r].name_len, g->rules[r].name);
    return G4_OK;
}

/* Rule names point into the source, which is the caller's: forget them. */
static void g4_grammar_forget_names(g4_grammar *g)
{
    for (int r = 0; r < g->n_rules; r++) g->rules[r].name = NULL;
}

g4_status g4_grammar_rules(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t, const char *rules,
                           size_t len, g4_error *err)
{
    g4_grammar *g = g4_grammar_new(a, t);
    *out = NULL;
    if (g == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for a grammar");
    g4_status st = g4_rules_read(g, rules, len, err);
    if (st == G4_OK) st = g4_grammar_finish(g, "grammar", err);
    if (st != G4_OK) {
        g4_grammar_close(g);
        return st;
    }
    g4_grammar_forget_names(g);
    *out = g;
    return G4_OK;
}

g4_status g4_grammar_from_rules(g4_grammar **out, const g4_engine *e, const char *rules, size_t len, g4_error *err)
{
    return g4_grammar_rules(out, g4_engine_allocator(e), g4_engine_tokenizer(e), rules, len > 0 ? len : strlen(rules),
                            err);
}

/* ---- 10. JSON Schema to a grammar ------------------------------------------------------------------------------
 *
 * Each schema becomes a rule, in one of two spellings: JSON text, or the family's call syntax (bare keys, strings
 * between control tokens, no blanks). The grammar makes a subset of what the schema allows: properties stand in their
 * order, undeclared ones appear only where additionalProperties says so, numbers with bounds have no exponent. What
 * would need more than a grammar, and any keyword not known here, is an error that names keyword and place. */

enum {
    G4_T_NULL = 1,
    G4_T_BOOLEAN = 2,
    G4_T_INTEGER = 4,
    G4_T_NUMBER = 8,
    G4_T_STRING = 16,
    G4_T_ARRAY = 32,
    G4_T_OBJECT = 64,
    G4_T_ANY = 123
};

typedef struct { const g4_json *schema; int rule; } g4_schema_memo;

typedef struct {
    g4_grammar *g;
    const g4_json *root;
    int call;                     /* the call syntax instead of JSON */
    g4_schema_memo *memo;
    int n_memo, cap_memo;
    int any;                      /* the rule of any value; -1: not made */
    int depth;
    char path[256];               /* where in the document, for errors */
    size_t path_len;
    const char *what;             /* stands before the path */
    g4_status st;
    g4_error *err;
} g4_schema;

static void g4_schema_fail(g4_schema *c, const char *keyword, const char *why)
{
    if (c->st != G4_OK) return;
    const char *sep = keyword[0] != '\0' ? "/" : "";
    c->st = g4_fail(c->err, G4_ERR_UNSUPPORTED, "%s#%s%s%s: %s", c->what, c->path, sep, keyword, why);
}

/* Append "/name" to the path and return its old length, to go back to. */
static size_t g4_schema_enter(g4_schema *c, const char *name)
{
    size_t old = c->path_len;
    int n = snprintf(c->path + old, sizeof c->path - old, "/%s", name);
    if (n > 0) c->path_len = old + (size_t)n < sizeof c->path ? old + (size_t)n : sizeof c->path - 1;
    return old;
}

static void g4_schema_leave(g4_schema *c, size_t old)
{
    c->path_len = old;
    c->path[old] = '\0';
}

static int g4_schema_rule(g4_schema *c, const g4_json *s);

/* A blank or a line break with its indentation, or nothing; in JSON only. */
static int32_t g4_schema_space(g4_schema *c, int32_t from, int lines)
{
    if (c->call) return from;
    int32_t to = g4_net_node(c->g);
    g4_net_empty(c->g, from, to);
    g4_net_bytes(c->g, from, to, ' ', ' ');
    if (!lines) return to;
    int32_t at = g4_net_node(c->g);
    g4_net_bytes(c->g, from, at, '\n', '\n');
    for (int i = 0; i < 24; i++) {
        int32_t next = g4_net_node(c->g);
        g4_net_empty(c->g, at, to);
        g4_net_bytes(c->g, at, next, ' ', ' ');
        at = next;
    }
    g4_net_empty(c->g, at, to);
    return to;
}

static int32_t g4_schema_quote(g4_schema *c, int32_t from)
{
    int32_t to = g4_net_node(c->g);
    if (c->call) g4_net_special(c->g, from, to, G4_CONTROL_QUOTE);
    else g4_net_bytes(c->g, from, to, '"', '"');
    return to;
}

/* A literal value, as words in the tree that grows at `from` where it can. */
static int32_t g4_schema_literal(g4_schema *c, int32_t from, const g4_json *v, int depth)
{
    g4_buf b = { .a = c->g->a };
    int first = 1;
    switch (v->kind) {
    case G4_JSON_STRING:
        if (c->call) {
            from = g4_net_text(c->g, g4_schema_quote(c, from), v->text, v->text_len);
            return g4_schema_quote(c, from);
        }
        g4_json_quote(&b, v->text, v->text_len);
        break;
    case G4_JSON_ARRAY:
    case G4_JSON_OBJECT:
        if (depth > 64) {
            g4_schema_fail(c, "", "a constant nested more than 64 deep");
            return from;
        }
        from = g4_net_word(c->g, from, v->kind == G4_JSON_ARRAY ? "[" : "{", 1);
        for (const g4_json *k = v->child; k != NULL; k = k->next, first = 0) {
            if (!first) from = g4_net_str(c->g, from, c->call ? "," : ", ");
            if (v->kind == G4_JSON_OBJECT) {
                b.len = 0;
                if (c->call) g4_buf_add(&b, k->key, k->key_len);
                else g4_json_quote(&b, k->key, k->key_len);
                g4_buf_str(&b, c->call ? ":" : ": ");
                from = g4_net_text(c->g, from, b.data == NULL ? "" : b.data, b.len);
            }
            from = g4_schema_literal(c, from, k, depth + 1);
        }
        b.len = 0;
        g4_buf_str(&b, v->kind == G4_JSON_ARRAY ? "]" : "}");
        break;
    case G4_JSON_NUMBER: g4_buf_add(&b, v->text, v->text_len); break;
    default: g4_buf_str(&b, v->kind == G4_JSON_NULL ? "null" : v->kind == G4_JSON_TRUE ? "true" : "false");
    }
    if (b.failed) c->g->failed = 1;
    from = g4_net_word(c->g, from, b.data == NULL ? "" : b.data, b.len);
    g4_buf_free(&b);
    return from;
}

/* One character of a string between its quotes, in every spelling JSON has for it. */
static void g4_schema_any_char(g4_schema *c, int32_t from, int32_t to)
{
    g4_grammar *g = c->g;
    if (c->call) {
        g4_net_chars(g, from, to, 0, 0x10ffff);
        return;
    }
    g4_net_chars(g, from, to, 0x20, 0x21);
    g4_net_chars(g, from, to, 0x23, 0x5b);
    g4_net_chars(g, from, to, 0x5d, 0x10ffff);
    int32_t slash = g4_net_node(g), hex[4];
    g4_net_bytes(g, from, slash, '\\', '\\');
    for (const char *e = "\"\\/bfnrt"; *e != '\0'; e++) g4_net_bytes(g, slash, to, *e, *e);
    for (int i = 0; i < 4; i++) hex[i] = g4_net_node(g);
    g4_net_bytes(g, slash, hex[0], 'u', 'u');
    static const char digits[3][2] = { { '0', '9' }, { 'a', 'f' }, { 'A', 'F' } };
    int32_t d = g4_net_node(g);
    for (int k = 0; k < 3; k++) { /* D800 to DFFF are halves of pairs: left out */
        for (int ch = digits[k][0]; ch <= digits[k][1]; ch++)
            g4_net_bytes(g, hex[0], (ch | 0x20) == 'd' ? d : hex[1], ch, ch);
        g4_net_bytes(g, hex[1], hex[2], digits[k][0], digits[k][1]);
        g4_net_bytes(g, hex[2], hex[3], digits[k][0], digits[k][1]);
        g4_net_bytes(g, hex[3], to, digits[k][0], digits[k][1]);
    }
    g4_net_bytes(g, d, hex[2], '0', '7');
}

/* A non-negative integer keyword, or `absent`. */
static int g4_schema_count(g4_schema *c, const g4_json *s, const char *keyword, int absent, int most)
{
    const g4_json *v = g4_json_get(s, keyword);
    if (v == NULL) return absent;
    if (v->kind != G4_JSON_NUMBER || v->number < 0 || v->number != (double)(int64_t)v->number) {
        g4_schema_fail(c, keyword, "must be a non-negative integer");
        return absent;
    }
    if (v->number > most) {
        g4_schema_fail(c, keyword, "too large for a grammar");
        return absent;
    }
    return (int)v->number;
}

#define G4_MAX_COUNT 4096

static void g4_schema_string(g4_schema *c, const g4_json *s, int32_t from, int32_t to)
{
    static const struct { const char *name, *pattern;
    } formats[] = {
        { "date", "^\\d{4}-(0[1-9]|1[0-2])-(0[1-9]|1\\d|2[0-8])$" },
        { "time", "^([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)$" },
        { "date-time", "^\\d{4}-(0[1-9]|1[0-2])-(0[1-9]|1\\d|2[0-8])T([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?("
                       "Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)$" },
        { "uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$" },
        { "ipv4", "^((25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)\\.){3}(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)$" },
        { "email", "^[a-z0-9]+([._+-][a-z0-9]+){0,3}@[a-z0-9]+(-[a-z0-9]+){0,2}(\\.[a-z0-9]+){0,2}\\.[a-z]{2,8}$" },
    };
    const g4_json *pattern = g4_json_get(s, "pattern"), *format = g4_json_get(s, "format");
    int min = g4_schema_count(c, s, "minLength", 0, G4_MAX_COUNT),
        max = g4_schema_count(c, s, "maxLength", -1, G4_MAX_COUNT);
    const char *expression = NULL, *keyword = "pattern";
    size_t len = 0;
    if (pattern != NULL) {
        if (pattern->kind != G4_JSON_STRING) g4_schema_fail(c, "pattern", "must be a string");
        expression = pattern->text;
        len = pattern->text_len;
    }
    if (format != NULL) {
        if (pattern != NULL) g4_schema_fail(c, "format", "cannot be combined with pattern here");
        keyword = "format";
        for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
            if (g4_json_is_text(format, formats[i].name)) expression = formats[i].pattern;
        if (expression == NULL) g4_schema_fail(c, "format", "this format is not supported");
        else len = strlen(expression);
    }
    if (expression != NULL && (g4_json_get(s, "minLength") != NULL || g4_json_get(s, "maxLength") != NULL))
        g4_schema_fail(c, keyword, "cannot be combined with minLength or maxLength here");
    if (c->st != G4_OK) return;
    from = g4_schema_quote(c, from);
    int32_t end = from;
    if (expression != NULL) {
        char what[340];
        snprintf(what, sizeof what, "%s#%s/%s", c->what, c->path, keyword);
        end = g4_net_pattern(c->g, from, expression, len, c->call ? G4_RAW : G4_ESCAPED, what, &c->st, c->err);
    } else {
        /* One node for each count of characters so far. Far from both limits, no token can tell the counts apart: they
         * share what is computed for the first of them. */
        int n = max >= 0 ? max : min;
        int32_t at = g4_net_node(c->g), shared = -1;
        end = g4_net_node(c->g);
        g4_net_empty(c->g, from, at);
        for (int i = 0; i < n && !c->g->failed; i++) {
            int32_t next = g4_net_node(c->g);
            if (i >= min) g4_net_empty(c->g, at, end);
            g4_schema_any_char(c, at, next);
            if (max >= 0 && i >= min && max - i > c->g->longest) {
                if (shared < 0) shared = at;
                c->g->nodes[at].alias = shared;
            }
            at = next;
        }
        g4_net_empty(c->g, at, end);
        if (max < 0) g4_schema_any_char(c, at, at);
    }
    g4_net_empty(c->g, g4_schema_quote(c, end), to);
}

/* ---- numbers ---- */

typedef struct {
    int negative, n_int, n_frac;
    char digits[2][48];
} g4_decimal; /* [0]: integer part, [1]: fraction without trailing zeros */

/* Reads a JSON number exactly; returns 0 if it has too many digits. */
static int g4_decimal_read(g4_decimal *d, const char *s)
{
    char all[80];
    int n = 0, point = -1, zero = 1;
    long exponent = 0;
    memset(d, 0, sizeof *d);
    if (*s == '-') {
        d->negative = 1;
        s++;
    }
    for (; *s != '\0' && *s != 'e' && *s != 'E'; s++) {
        if (*s == '.') {
            point = n;
        } else {
            if (n >= 40) return 0;
            all[n++] = *s;
            zero = zero && *s == '0';
        }
    }
    if (point < 0) point = n;
    if (*s != '\0') {
        exponent = strtol(s + 1, NULL, 10);
        if (exponent > 30 || exponent < -30) return zero;
    }
    for (int i = 0; i < n || i < point + exponent; i++) {
        char ch = i < n ? all[i] : '0';
        if (i < point + exponent) {
            if (d->n_int == 0 && ch == '0') continue;
            if (d->n_int >= 40) return 0;
            d->digits[0][d->n_int++] = ch;
        } else {
            for (long k = point + exponent; i == 0 && k < 0; k++) d->digits[1][d->n_frac++] = '0';
            if (d->n_frac >= 40) return 0;
            d->digits[1][d->n_frac++] = ch;
        }
    }
    while (d->n_frac > 0 && d->digits[1][d->n_frac - 1] == '0') d->n_frac--;
    if (d->n_int == 0) d->digits[0][d->n_int++] = '0';
    if (zero) d->negative = 0;
    return 1;
}

typedef struct { g4_decimal value; int exclusive, given; } g4_bound;

/* What a digit may be at one place, given which of the bounds the digits so far are equal to. */
static void g4_range_digit(g4_grammar *g, int32_t from, int32_t next[4], int tight, int low, int high)
{
    int a = (tight & 1) ? low : 0, b = (tight & 2) ? high : 9;
    for (int d = a; d <= b; d++) {
        int t = ((tight & 1) && d == low ? 1 : 0) | ((tight & 2) && d == high ? 2 : 0);
        if (next[t] < 0) next[t] = g4_net_node(g);
        g4_net_bytes(g, from, next[t], '0' + d, '0' + d);
    }
}

/* The numbers lo..hi, not negative; hi not given: no end. Digit by digit; bit 0 of a state says that the digits so far
 * equal those of lo, bit 1 those of hi. */
static void g4_net_range(g4_grammar *g, int32_t from, int32_t to, const g4_bound *lo, const g4_bound *hi, int integer)
{
    const g4_decimal *a = &lo->value, *b = &hi->value;
    int longest = hi->given ? b->n_int : g4_max_int(a->n_int, 15);
    int places = g4_max_int(a->n_frac, hi->given ? b->n_frac : 0) + 3;
    for (int len = a->n_int; len <= longest; len++) {
        int32_t at[4] = { -1, -1, -1, -1 };
        at[(len == a->n_int ? 1 : 0) | (hi->given && len == b->n_int ? 2 : 0)] = from;
        for (int i = 0; i < len; i++) {
            int32_t next[4] = { -1, -1, -1, -1 };
            for (int t = 0; t < 4; t++) {
                if (at[t] < 0) continue;
                int low = (t & 1) ? a->digits[0][i] - '0' : 0, high = (t & 2) ? b->digits[0][i] - '0' : 9;
                if (i == 0 && len > 1 && low == 0) { /* no leading zero: the lower bound, if tight, is not 0 here */
                    for (int d = 1; d <= high; d++) {
                        int n = (t & 2) && d == high ? 2 : 0;
                        if (next[n] < 0) next[n] = g4_net_node(g);
                        g4_net_bytes(g, at[t], next[n], '0' + d, '0' + d);
                    }
                } else {
                    g4_range_digit(g, at[t], next, t, low, high);
                }
            }
            memcpy(at, next, sizeof at);
        }
        for (int i = 0; i <= places; i++) { /* i digits of the fraction have been read */
            int32_t next[4] = { -1, -1, -1, -1 };
            for (int t = 0; t < 4; t++) {
                if (at[t] < 0) continue;
                int low_ok = !(t & 1) || (i >= a->n_frac && !lo->exclusive),
                    high_ok = !(t & 2) || i < b->n_frac || !hi->exclusive;
                if (low_ok && high_ok) g4_net_empty(g, at[t], to);
                if (integer || i == places) continue;
                int32_t digit = at[t];
                if (i == 0) {
                    digit = g4_net_node(g);
                    g4_net_bytes(g, at[t], digit, '.', '.');
                }
                g4_range_digit(g, digit, next, t, (t & 1) && i < a->n_frac ? a->digits[1][i] - '0' : 0,
                               (t & 2) && i < b->n_frac ? b->digits[1][i] - '0' : (t & 2) ? 0 : 9);
            }
            memcpy(at, next, sizeof at);
        }
    }
}

/* minimum and exclusiveMinimum, or the other pair, to one bound. */
static void g4_schema_bound(g4_schema *c, const g4_json *s, const char *plain, const char *exclusive, int upper,
                            g4_bound *out)
{
    const g4_json *v[2] = { g4_json_get(s, plain), g4_json_get(s, exclusive) };
    const char *const names[2] = { plain, exclusive };
    memset(out, 0, sizeof *out);
    for (int i = 0; i < 2; i++) {
        if (v[i] == NULL) continue;
        if (v[i]->kind != G4_JSON_NUMBER) g4_schema_fail(c, names[i], "must be a number");
        else if (out->given && (upper ? v[i]->number > v[0]->number : v[i]->number < v[0]->number))
            continue; /* the tighter one counts */
        else if (!g4_decimal_read(&out->value, v[i]->text)) g4_schema_fail(c, names[i], "too many digits");
        out->given = 1;
        out->exclusive = i;
    }
}

static void g4_schema_number(g4_schema *c, const g4_json *s, int32_t from, int32_t to, int integer)
{
    static const char *const patterns[] = { "-?(0|[1-9][0-9]{0,15})(\\.[0-9]{1,16})?([eE][+-]?[0-9]{1,2})?",
                                            "-?(0|[1-9][0-9]{0,15})" };
    const g4_json *multiple = g4_json_get(s, "multipleOf");
    g4_bound lo, hi;
    if (multiple != NULL && !(integer && multiple->kind == G4_JSON_NUMBER && multiple->number == 1.0))
        g4_schema_fail(c, "multipleOf", "is not supported");
    g4_schema_bound(c, s, "minimum", "exclusiveMinimum", 0, &lo);
    g4_schema_bound(c, s, "maximum", "exclusiveMaximum", 1, &hi);
    if (c->st != G4_OK) return;
    if (!lo.given && !hi.given) {
        g4_pattern p = {
            .g = c->g, .s = patterns[integer], .n = strlen(patterns[integer]), .what = "number", .err = c->err
        };
        g4_net_empty(c->g, g4_pattern_alternatives(&p, from), to);
        return;
    }
    g4_bound zero = { .given = 1 };
    g4_decimal_read(&zero.value, "0");
    if (!hi.given || !hi.value.negative) {
        int32_t start = g4_net_node(c->g);
        g4_net_empty(c->g, from, start);
        g4_net_range(c->g, start, to, lo.given && !lo.value.negative ? &lo : &zero, &hi, integer);
    }
    if (!lo.given || lo.value.negative) { /* the same on the other side of zero, which is left out there */
        int32_t start = g4_net_node(c->g);
        g4_net_bytes(c->g, from, start, '-', '-');
        zero.exclusive = 1;
        g4_net_range(c->g, start, to, hi.given && hi.value.negative ? &hi : &zero, &lo, integer);
    }
}

/* ---- lists and objects ---- */

static void g4_schema_call(g4_schema *c, int32_t from, int32_t to, const g4_json *s)
{
    static const g4_json any = { .kind = G4_JSON_TRUE };
    int rule = g4_schema_rule(c, s == NULL ? &any : s);
    g4_net_call(c->g, from, to, rule);
}

static void g4_schema_array(g4_schema *c, const g4_json *s, int32_t from, int32_t to)
{
    const g4_json *items = g4_json_get(s, "items"), *prefix = g4_json_get(s, "prefixItems");
    int min = g4_schema_count(c, s, "minItems", 0, G4_MAX_COUNT),
        max = g4_schema_count(c, s, "maxItems", -1, G4_MAX_COUNT), n_prefix = 0;
    if (prefix != NULL && prefix->kind != G4_JSON_ARRAY) g4_schema_fail(c, "prefixItems", "must be a list of schemas");
    if (items != NULL && items->kind == G4_JSON_ARRAY)
        g4_schema_fail(c, "items", "as a list is an older draft's: use prefixItems");
    if (c->st != G4_OK) return;
    int32_t at = g4_net_node(c->g), close = g4_net_node(c->g);
    g4_net_bytes(c->g, from, at, '[', '[');
    at = g4_schema_space(c, at, 1);
    const g4_json *p = prefix != NULL ? prefix->child : NULL;
    for (const g4_json *k = p; k != NULL; k = k->next) n_prefix++;
    int last = g4_max_int(min, n_prefix);
    if (max >= 0) last = max;
    for (int i = 0; i < last + (max < 0) && c->st == G4_OK && !c->g->failed; i++) {
        const g4_json *item = p != NULL ? p : items;
        int32_t here = g4_net_node(c->g), next = g4_net_node(c->g);
        size_t old = g4_schema_enter(c, p != NULL ? "prefixItems" : "items");
        if (i >= min) g4_net_empty(c->g, at, close);
        if (i > 0) {
            int32_t comma = g4_net_node(c->g);
            g4_net_bytes(c->g, at, comma, ',', ',');
            g4_net_empty(c->g, g4_schema_space(c, comma, 1), here);
        } else {
            g4_net_empty(c->g, at, here);
        }
        g4_schema_call(c, here, next, item);
        if (i == last) { /* as many more as they like */
            int32_t comma = g4_net_node(c->g);
            g4_net_bytes(c->g, next, comma, ',', ',');
            g4_net_empty(c->g, g4_schema_space(c, comma, 1), here);
        }
        g4_schema_leave(c, old);
        if (p != NULL) p = p->next;
        at = next;
    }
    g4_net_empty(c->g, at, close);
    close = g4_schema_space(c, close, 1);
    g4_net_bytes(c->g, close, to, ']', ']');
}

/* Keys that are none of `names` (sorted, all beginning alike up to `at`). Without escapes, so that no spelling of a
 * name gets through. */
static void g4_schema_other_key(g4_schema *c, int32_t from, int32_t to, const g4_sorted *names, size_t n, size_t at)
{
    g4_pattern p = { .g = c->g };
    g4_class k = { 0 };
    int32_t rest = g4_net_node(c->g);
    if (c->call) {
        g4_class_shorthand(&p, &k, 'w');
        g4_class_settle(&p, &k, 0, 0);
    } else {
        g4_class_add(&p, &k, 0x20, 0x21);
        g4_class_add(&p, &k, 0x23, 0x5b);
        g4_class_add(&p, &k, 0x5d, 0x10ffff);
    }
    for (int i = 0; i < k.n; i++) g4_net_chars(c->g, rest, rest, k.r[i].lo, k.r[i].hi);
    g4_net_empty(c->g, rest, to);
    size_t i = 0;
    if (n > 0 && names[0].len == at) i = 1; /* this very name: no end here */
    else if (at > 0 || !c->call) g4_net_empty(c->g, from, to);
    uint32_t free_from = 0;
    while (i <= n && !c->g->failed) { /* the characters between those that names go on with */
        uint32_t cp = 0x110000;
        size_t len = i < n ? g4_utf8_decode(names[i].text + at, names[i].len - at, &cp) : 0, j = i + 1;
        for (int r = 0; r < k.n && cp > free_from; r++) {
            uint32_t a = k.r[r].lo > free_from ? k.r[r].lo : free_from, b = k.r[r].hi < cp - 1 ? k.r[r].hi : cp - 1;
            if (a <= b) g4_net_chars(c->g, from, rest, a, b);
        }
        if (i == n) break;
        while (j < n && names[j].len >= at + len && memcmp(names[j].text + at, names[i].text + at, len) == 0) j++;
        int32_t next = g4_net_node(c->g);
        for (int r = 0; r < k.n; r++)
            if (cp >= k.r[r].lo && cp <= k.r[r].hi) g4_net_chars(c->g, from, next, cp, cp);
        g4_schema_other_key(c, next, to, names + i, j - i, at + len);
        free_from = cp + 1;
        i = j;
    }
    g4_free(c->g->a, k.r);
}

/* A rule for "key": value. name NULL: any key but those in d. */
static int g4_schema_member(g4_schema *c, const g4_json *name, const g4_dictsort *d, const g4_json *value)
{
    int r = g4_net_rule(c->g, NULL, 0);
    if (c->g->failed) return 0;
    int32_t at = c->g->rules[r].start, end = c->g->rules[r].end;
    g4_buf b = { .a = c->g->a };
    if (name != NULL) {
        if (c->call) g4_buf_add(&b, name->text, name->text_len);
        else g4_json_quote(&b, name->text, name->text_len);
        if (b.failed) c->g->failed = 1;
        at = g4_net_text(c->g, at, b.data == NULL ? "" : b.data, b.len);
        g4_buf_free(&b);
    } else {
        if (!c->call) at = g4_schema_quote(c, at);
        int32_t key = g4_net_node(c->g);
        g4_schema_other_key(c, at, key, d->members, d->n, 0);
        at = c->call ? key : g4_schema_quote(c, key);
    }
    at = g4_schema_space(c, g4_net_str(c->g, at, ":"), 0);
    g4_schema_call(c, at, end, value);
    return r;
}

static void g4_schema_object(g4_schema *c, const g4_json *s, int32_t from, int32_t to)
{
    const g4_json *properties = g4_json_get(s, "properties"), *required = g4_json_get(s, "required"),
                  *extra = g4_json_get(s, "additionalProperties");
    int n = 0, n_required = 0, has_extra, min = g4_schema_count(c, s, "minProperties", 0, G4_MAX_COUNT),
        max = g4_schema_count(c, s, "maxProperties", -1, INT32_MAX);
    if (properties != NULL && properties->kind != G4_JSON_OBJECT) g4_schema_fail(c, "properties", "must be an object");
    if (required != NULL && required->kind != G4_JSON_ARRAY) g4_schema_fail(c, "required", "must be a list of names");
    if (extra != NULL && extra->kind != G4_JSON_OBJECT && extra->kind != G4_JSON_TRUE && extra->kind != G4_JSON_FALSE)
        g4_schema_fail(c, "additionalProperties", "must be a schema");
    if (c->st != G4_OK) return;
    has_extra = extra == NULL ? properties == NULL && required == NULL : extra->kind != G4_JSON_FALSE;
    g4_dictsort names = { .members = NULL }, order;
    static const g4_json empty = { .kind = G4_JSON_OBJECT };
    if (!g4_dictsort_open(&order, c->g->a, properties != NULL ? properties : &empty)) c->g->failed = 1;
    size_t n_extra_required = 0;
    for (const g4_json *q = required != NULL ? required->child : NULL; q != NULL; q = q->next) {
        if (q->kind != G4_JSON_STRING) g4_schema_fail(c, "required", "must be a list of names");
        else if (g4_json_get(properties, q->text) == NULL) n_extra_required++;
        n_required++;
    }
    if (n_extra_required > 0 && extra != NULL && extra->kind == G4_JSON_FALSE)
        g4_schema_fail(c, "required",
                       "names a property that properties does not have and additionalProperties forbids");
    /* Required names without a schema of their own come last, then any others: both are kept apart from the declared
     * ones. */
    names.n = order.n + n_extra_required;
    names.members = g4_alloc(c->g->a, names.n + 1, sizeof *names.members);
    if (names.members == NULL) c->g->failed = 1;
    if (c->st != G4_OK || c->g->failed) goto done;
    for (size_t i = 0; i < order.n; i++)
        names.members[i] = (g4_sorted){ order.members[i].node, order.members[i].node->key, order.members[i].node->key_len, i };
    size_t k = order.n;
    for (const g4_json *q = required != NULL ? required->child : NULL; q != NULL; q = q->next)
        if (g4_json_get(properties, q->text) == NULL) {
            names.members[k] = (g4_sorted){ q, q->text, q->text_len, k };
            k++;
        }
    int32_t none_yet = g4_net_node(c->g), some = g4_net_node(c->g);
    g4_net_bytes(c->g, from, none_yet, '{', '{');
    none_yet = g4_schema_space(c, none_yet, 1);
    const g4_json *declared = properties != NULL ? properties->child : NULL;
    for (size_t i = 0; i < names.n && c->st == G4_OK && !c->g->failed; i++, n++) {
        /* in JSON as written; in calls sorted as the template sorts */
        const g4_json *node = i >= order.n || c->call ? names.members[i].node : declared;
        g4_json name = { .kind = G4_JSON_STRING,
                         .text = i < order.n ? node->key : node->text,
                         .text_len = i < order.n ? node->key_len : node->text_len };
        int must = i >= order.n;
        for (const g4_json *q = required != NULL ? required->child : NULL; q != NULL; q = q->next)
            must = must || g4_json_equal(q, &name);
        size_t old = g4_schema_enter(c, "properties"), older = c->path_len;
        g4_schema_enter(c, name.text);
        int rule = g4_schema_member(c, &name, NULL, i < order.n ? node : extra);
        (void)older;
        g4_schema_leave(c, old);
        int32_t none_next = g4_net_node(c->g), some_next = g4_net_node(c->g), comma = g4_net_node(c->g);
        g4_net_call(c->g, none_yet, some_next, rule);
        g4_net_bytes(c->g, some, comma, ',', ',');
        g4_net_call(c->g, g4_schema_space(c, comma, 1), some_next, rule);
        if (!must) {
            g4_net_empty(c->g, none_yet, none_next);
            g4_net_empty(c->g, some, some_next);
        }
        none_yet = none_next;
        some = some_next;
        if (i < order.n && declared != NULL) declared = declared->next;
    }
    if (has_extra && c->st == G4_OK && !c->g->failed) {
        qsort(names.members, names.n, sizeof *names.members, g4_sorted_compare);
        size_t old = g4_schema_enter(c, "additionalProperties");
        int rule = g4_schema_member(c, NULL, &names, extra);
        g4_schema_leave(c, old);
        int32_t comma = g4_net_node(c->g), more = g4_net_node(c->g);
        g4_net_empty(c->g, some, more);
        g4_net_call(c->g, none_yet, more, rule);
        g4_net_bytes(c->g, more, comma, ',', ',');
        g4_net_call(c->g, g4_schema_space(c, comma, 1), more, rule);
        some = more;
    }
    if (min > n_required && !(min == 1 && (n > 0 || has_extra)))
        g4_schema_fail(c, "minProperties", "is supported up to the number of required properties, or as 1");
    if (max >= 0 && (has_extra || max < n)) g4_schema_fail(c, "maxProperties", "is not supported here");
    int32_t close = g4_net_node(c->g);
    if (min == 0 || n_required > 0) g4_net_empty(c->g, none_yet, close);
    g4_net_empty(c->g, some, close);
    close = g4_schema_space(c, close, 1);
    g4_net_bytes(c->g, close, to, '}', '}');
done:
    g4_dictsort_close(&order);
    g4_free(c->g->a, names.members);
}

/* ---- schemas ---- */

static int g4_schema_type_bit(const g4_json *v)
{
    static const char *const names[] = { "null", "boolean", "integer", "number", "string", "array", "object" };
    for (int i = 0; i < 7; i++)
        if (g4_json_is_text(v, names[i])) return 1 << i;
    if (g4_json_is(v, G4_JSON_STRING)) { /* the tools of some hosts write them in capitals */
        for (int i = 0; i < 7; i++) {
            size_t k = 0, n = strlen(names[i]);
            while (k < n && k < v->text_len && (v->text[k] | 0x20) == names[i][k]) k++;
            if (k == n && k == v->text_len) return 1 << i;
        }
    }
    return 0;
}

/* The types a schema allows; those that its keywords speak of when it names none. */
static int g4_schema_types(const g4_json *s)
{
    static const struct { const char *keyword; int type;
    } hints[] = {
        { "properties", G4_T_OBJECT },
        { "required", G4_T_OBJECT },
        { "additionalProperties", G4_T_OBJECT },
        { "minProperties", G4_T_OBJECT },
        { "maxProperties", G4_T_OBJECT },
        { "items", G4_T_ARRAY },
        { "prefixItems", G4_T_ARRAY },
        { "minItems", G4_T_ARRAY },
        { "maxItems", G4_T_ARRAY },
        { "minLength", G4_T_STRING },
        { "maxLength", G4_T_STRING },
        { "pattern", G4_T_STRING },
        { "format", G4_T_STRING },
        { "minimum", G4_T_NUMBER },
        { "maximum", G4_T_NUMBER },
        { "exclusiveMinimum", G4_T_NUMBER },
        { "exclusiveMaximum", G4_T_NUMBER },
        { "multipleOf", G4_T_NUMBER },
    };
    const g4_json *type = g4_json_get(s, "type");
    int types = 0;
    if (type == NULL) {
        for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++)
            if (g4_json_get(s, hints[i].keyword) != NULL) types |= hints[i].type;
        return types == 0 ? G4_T_ANY : types;
    }
    if (type->kind != G4_JSON_ARRAY) return g4_schema_type_bit(type);
    for (const g4_json *t = type->child; t != NULL; t = t->next) {
        if (g4_schema_type_bit(t) == 0) return 0;
        types |= g4_schema_type_bit(t);
    }
    return types;
}

static int g4_json_type_bit(const g4_json *v)
{
    static const int bits[] = {
        G4_T_NULL, G4_T_BOOLEAN, G4_T_BOOLEAN, G4_T_NUMBER, G4_T_STRING, G4_T_ARRAY, G4_T_OBJECT
    };
    if (v->kind == G4_JSON_NUMBER &&
        v->number == (double)(int64_t)(v->number > -9e15 && v->number < 9e15 ? v->number : 0.5))
        return G4_T_INTEGER | G4_T_NUMBER;
    return bits[v->kind];
}

/* #, #/a/b with ~0 ~1 and %XX, inside the root. */
static const g4_json *g4_schema_resolve(g4_schema *c, const g4_json *ref)
{
    const g4_json *at = c->root;
    if (!g4_json_is(ref, G4_JSON_STRING) || ref->text_len == 0 || ref->text[0] != '#' ||
        (ref->text_len > 1 && ref->text[1] != '/')) {
        g4_schema_fail(c, "$ref", "only references into the document itself (#/...) are supported");
        return NULL;
    }
    for (size_t i = 1; i < ref->text_len && at != NULL;) {
        char name[256];
        size_t n = 0;
        for (i++; i < ref->text_len && ref->text[i] != '/' && n < sizeof name - 1; i++) {
            char ch = ref->text[i];
            uint32_t hex;
            char four[5] = "0000";
            if (ch == '~' && i + 1 < ref->text_len) ch = ref->text[++i] == '1' ? '/' : '~';
            else if (ch == '%' && ref->text_len - i > 2) {
                memcpy(four + 2, ref->text + i + 1, 2);
                if (g4_hex_read(four, 4, &hex)) {
                    ch = (char)hex;
                    i += 2;
                }
            }
            name[n++] = ch;
        }
        name[n] = '\0';
        if (at->kind == G4_JSON_ARRAY) {
            long k = n > 0 && n < 7 && name[0] >= '0' && name[0] <= '9' ? strtol(name, NULL, 10) : -1;
            const g4_json *e = k >= 0 ? at->child : NULL;
            while (e != NULL && k-- > 0) e = e->next;
            at = e;
        } else {
            at = g4_json_get(at, name);
        }
    }
    if (at == NULL) {
        char why[200];
        snprintf(why, sizeof why, "%.120s: there is no such place in the document", ref->text);
        g4_schema_fail(c, "$ref", why);
    }
    return at;
}

static int g4_schema_requires(const g4_json *s, const g4_json *name)
{
    const g4_json *required = g4_json_get(s, "required");
    for (const g4_json *q = g4_json_is(required, G4_JSON_ARRAY) ? required->child : NULL; q != NULL; q = q->next)
        if (q->kind == G4_JSON_STRING && q->text_len == name->key_len && memcmp(q->text, name->key, q->text_len) == 0)
            return 1;
    return 0;
}

/* Does `a` require a property that `b` does not declare? */
static int g4_schema_needs_more(const g4_json *a, const g4_json *b)
{
    const g4_json *required = g4_json_get(a, "required"), *pb = g4_json_get(b, "properties");
    for (const g4_json *q = g4_json_is(required, G4_JSON_ARRAY) ? required->child : NULL; q != NULL; q = q->next)
        if (q->kind == G4_JSON_STRING && g4_json_get(pb, q->text) == NULL) return 1;
    return 0;
}

static int g4_schema_closed(const g4_json *s) { return g4_json_is(g4_json_get(s, "additionalProperties"), G4_JSON_FALSE); }

/* Can no value made for one of these be valid for the other as well? Errs on the side of no. */
static int g4_schema_disjoint(g4_schema *c, const g4_json *a, const g4_json *b, int depth)
{
    if (depth > 8 || c->st != G4_OK) return 0;
    if (g4_json_get(a, "$ref") != NULL)
        return g4_schema_disjoint(c, g4_schema_resolve(c, g4_json_get(a, "$ref")), b, depth + 1);
    if (g4_json_get(b, "$ref") != NULL)
        return g4_schema_disjoint(c, a, g4_schema_resolve(c, g4_json_get(b, "$ref")), depth + 1);
    if (!g4_json_is(a, G4_JSON_OBJECT) || !g4_json_is(b, G4_JSON_OBJECT))
        return g4_json_is(a, G4_JSON_FALSE) || g4_json_is(b, G4_JSON_FALSE);
    const g4_json *const s[2] = { a, b };
    const g4_json *values[2] = { NULL, NULL };
    g4_json single[2];
    int types[2];
    for (int i = 0; i < 2; i++) {
        const g4_json *k = g4_json_get(s[i], "const"), *e = g4_json_get(s[i], "enum");
        if (k != NULL) {
            single[i] = *k;
            single[i].next = NULL;
            values[i] = &single[i];
        } else if (g4_json_is(e, G4_JSON_ARRAY)) {
            values[i] = e->child;
        }
        types[i] = 0;
        for (const g4_json *v = values[i]; v != NULL; v = v->next) types[i] |= g4_json_type_bit(v);
        if (values[i] == NULL && (g4_json_get(s[i], "anyOf") != NULL || g4_json_get(s[i], "oneOf") != NULL ||
                                  g4_json_get(s[i], "allOf") != NULL))
            return 0;
        if (values[i] == NULL) types[i] = g4_json_get(s[i], "type") == NULL ? G4_T_ANY : g4_schema_types(s[i]);
        if (types[i] & G4_T_INTEGER) types[i] |= G4_T_NUMBER;
        if (g4_py_truthy(g4_json_get(s[i], "nullable"))) types[i] |= G4_T_NULL;
    }
    if ((types[0] & types[1]) == 0) return 1;
    if (values[0] != NULL && values[1] != NULL) {
        for (const g4_json *v = values[0]; v != NULL; v = v->next)
            for (const g4_json *w = values[1]; w != NULL; w = w->next)
                if (g4_json_equal(v, w)) return 0;
        return 1;
    }
    if ((types[0] & types[1]) != G4_T_OBJECT) return 0;
    int more_a = g4_schema_needs_more(a, b), more_b = g4_schema_needs_more(b, a);
    if ((more_a || g4_schema_closed(b)) && (more_b || g4_schema_closed(a)) && (more_a || more_b)) {
        /* a's values lack what b requires, or b forbids what a's have; and the other way round */
        if ((more_b || (more_a && g4_schema_closed(b))) && (more_a || (more_b && g4_schema_closed(a)))) return 1;
    }
    const g4_json *pa = g4_json_get(a, "properties"), *pb = g4_json_get(b, "properties");
    for (const g4_json *p = g4_json_is(pa, G4_JSON_OBJECT) ? pa->child : NULL; p != NULL; p = p->next) {
        const g4_json *q = g4_json_get(pb, p->key);
        if (q != NULL && g4_schema_requires(a, p) && g4_schema_requires(b, p) && g4_schema_disjoint(c, p, q, depth + 1))
            return 1;
    }
    return 0;
}

static int g4_is_annotation(const g4_json *member)
{
    static const char *const names[] = { "title",      "description", "default",   "examples", "example",
                                         "$schema",    "$id",         "$comment",  "$defs",    "definitions",
                                         "deprecated", "readOnly",    "writeOnly", "$anchor" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (member->key_len == strlen(names[i]) && memcmp(member->key, names[i], member->key_len) == 0) return 1;
    return 0;
}

/* Of the keywords beside `keyword`, the first that is not in the list of those allowed there; NULL: none. */
static const char *g4_schema_beside(const g4_json *s, const char *keyword, const char *const *allowed)
{
    for (const g4_json *m = s->child; m != NULL; m = m->next) {
        int fine = g4_is_annotation(m) || strcmp(m->key, keyword) == 0;
        for (int i = 0; allowed != NULL && allowed[i] != NULL; i++) fine = fine || strcmp(m->key, allowed[i]) == 0;
        if (!fine) return m->key;
    }
    return NULL;
}

static void g4_schema_branches(g4_schema *c, const g4_json *s, const char *keyword, int32_t from, int32_t to)
{
    const g4_json *list = g4_json_get(s, keyword);
    const char *beside = g4_schema_beside(s, keyword, NULL);
    if (!g4_json_is(list, G4_JSON_ARRAY) || list->child == NULL) g4_schema_fail(c, keyword, "must be a list of schemas");
    if (beside != NULL) {
        char why[160];
        snprintf(why, sizeof why, "cannot be combined with %.60s here", beside);
        g4_schema_fail(c, keyword, why);
    }
    int i = 0;
    for (const g4_json *b = c->st == G4_OK ? list->child : NULL; b != NULL && c->st == G4_OK; b = b->next, i++) {
        char at[32];
        int j = i + 1;
        snprintf(at, sizeof at, "%d", i);
        for (const g4_json *d = b->next; d != NULL && strcmp(keyword, "oneOf") == 0; d = d->next, j++)
            if (!g4_schema_disjoint(c, b, d, 0)) {
                char why[160];
                snprintf(why, sizeof why,
                         "branches %d and %d may both fit one value: make them exclude each other, or use anyOf", i, j);
                g4_schema_fail(c, keyword, why);
            }
        size_t old = g4_schema_enter(c, keyword);
        g4_schema_enter(c, at);
        g4_schema_call(c, from, to, b);
        g4_schema_leave(c, old);
    }
}

static void g4_schema_values(g4_schema *c, const g4_json *s, int32_t from, int32_t to)
{
    static const char *const allowed[] = { "type", "enum", "const", "nullable", NULL };
    const g4_json *one = g4_json_get(s, "const"), *list = g4_json_get(s, "enum");
    const char *keyword = one != NULL ? "const" : "enum", *beside = g4_schema_beside(s, keyword, allowed);
    int types = g4_json_get(s, "type") != NULL ? g4_schema_types(s) : G4_T_ANY;
    if (types & G4_T_NUMBER) types |= G4_T_INTEGER;
    if (g4_py_truthy(g4_json_get(s, "nullable"))) types |= G4_T_NULL;
    if (one == NULL && !g4_json_is(list, G4_JSON_ARRAY)) g4_schema_fail(c, "enum", "must be a list of values");
    if (beside != NULL) {
        char why[160];
        snprintf(why, sizeof why, "cannot be combined with %.60s here", beside);
        g4_schema_fail(c, keyword, why);
    }
    if (c->st != G4_OK) return;
    int32_t words = g4_net_node(c->g); /* a tree of its own */
    g4_net_empty(c->g, from, words);
    for (const g4_json *v = one != NULL ? one : list->child; v != NULL && !c->g->failed;
         v = one != NULL ? NULL : v->next) {
        int in_list = one == NULL || list == NULL;
        for (const g4_json *w = one != NULL && g4_json_is(list, G4_JSON_ARRAY) ? list->child : NULL; w != NULL; w = w->next)
            in_list = in_list || g4_json_equal(v, w);
        if (in_list && (g4_json_type_bit(v) & types) != 0) g4_net_empty(c->g, g4_schema_literal(c, words, v, 0), to);
    }
}

/* All that the schema s allows, from node to node. */
static void g4_schema_build(g4_schema *c, const g4_json *s, int32_t from, int32_t to)
{
    static const char *const known[] = { "type",
                                         "enum",
                                         "const",
                                         "properties",
                                         "required",
                                         "additionalProperties",
                                         "minProperties",
                                         "maxProperties",
                                         "items",
                                         "prefixItems",
                                         "minItems",
                                         "maxItems",
                                         "minLength",
                                         "maxLength",
                                         "pattern",
                                         "format",
                                         "minimum",
                                         "maximum",
                                         "exclusiveMinimum",
                                         "exclusiveMaximum",
                                         "multipleOf",
                                         "anyOf",
                                         "oneOf",
                                         "allOf",
                                         "$ref",
                                         "nullable",
                                         NULL };
    static const g4_json plain = { .kind = G4_JSON_OBJECT };
    if (s->kind == G4_JSON_FALSE) return;
    if (s->kind == G4_JSON_TRUE) s = &plain;
    if (s->kind != G4_JSON_OBJECT) {
        g4_schema_fail(c, "", "a schema must be an object, true or false");
        return;
    }
    for (const g4_json *m = s->child; m != NULL; m = m->next) {
        if ((strcmp(m->key, "uniqueItems") == 0 && m->kind == G4_JSON_FALSE)) continue;
        const char *odd = NULL;
        g4_json only = { .kind = G4_JSON_OBJECT, .child = NULL };
        g4_json copy = *m;
        copy.next = NULL;
        only.child = &copy;
        odd = g4_schema_beside(&only, "", known);
        if (odd != NULL) {
            g4_schema_fail(c, odd, "this keyword is not supported");
            return;
        }
    }
    int32_t real = to;
    if (g4_json_get(s, "$ref") != NULL) {
        const char *beside = g4_schema_beside(s, "$ref", NULL);
        if (beside != NULL) g4_schema_fail(c, beside, "cannot be combined with $ref here");
        const g4_json *target = g4_schema_resolve(c, g4_json_get(s, "$ref"));
        if (target != NULL) g4_schema_call(c, from, to, target);
        return;
    }
    if (g4_json_get(s, "anyOf") != NULL || g4_json_get(s, "oneOf") != NULL) {
        g4_schema_branches(c, s, g4_json_get(s, "anyOf") != NULL ? "anyOf" : "oneOf", from, to);
        return;
    }
    const g4_json *all = g4_json_get(s, "allOf");
    if (all != NULL) {
        const char *beside = g4_schema_beside(s, "allOf", NULL);
        if (beside != NULL || !g4_json_is(all, G4_JSON_ARRAY) || all->child == NULL || all->child->next != NULL)
            g4_schema_fail(c, "allOf", "is supported with one schema and nothing beside it");
        else g4_schema_call(c, from, to, all->child);
        return;
    }
    if (g4_json_get(s, "enum") != NULL || g4_json_get(s, "const") != NULL) {
        g4_schema_values(c, s, from, to);
        return;
    }
    int types = g4_schema_types(s);
    if (types == 0) {
        g4_schema_fail(c, "type",
                       "must be null, boolean, integer, number, string, array or object, or a list of these");
        return;
    }
    if (g4_py_truthy(g4_json_get(s, "nullable"))) types |= G4_T_NULL;
    int32_t start = g4_net_node(c->g);
    g4_net_empty(c->g, from, start);
    if (types & G4_T_NULL) g4_net_empty(c->g, g4_net_word(c->g, start, "null", 4), real);
    if (types & G4_T_BOOLEAN) {
        g4_net_empty(c->g, g4_net_word(c->g, start, "true", 4), real);
        g4_net_empty(c->g, g4_net_word(c->g, start, "false", 5), real);
    }
    if (types & (G4_T_NUMBER | G4_T_INTEGER)) {
        int32_t number = g4_net_node(c->g);
        g4_net_empty(c->g, from, number);
        g4_schema_number(c, s, number, real, (types & G4_T_NUMBER) == 0);
    }
    if (types & G4_T_STRING) g4_schema_string(c, s, from, real);
    if (types & G4_T_ARRAY) g4_schema_array(c, s, from, real);
    if (types & G4_T_OBJECT) g4_schema_object(c, s, from, real);
}

/* The rule of a schema, made once. Schemas that say nothing share one. */
static int g4_schema_rule(g4_schema *c, const g4_json *s)
{
    int says_nothing = s->kind == G4_JSON_TRUE || (s->kind == G4_JSON_OBJECT && s->child == NULL);
    if (says_nothing && c->any >= 0) return c->any;
    for (int i = 0; i < c->n_memo && !says_nothing; i++)
        if (c->memo[i].schema == s) return c->memo[i].rule;
    if (c->depth > 200) {
        g4_schema_fail(c, "", "nested more than 200 deep");
        return 0;
    }
    int r = g4_net_rule(c->g, NULL, 0);
    g4_schema_memo *m = says_nothing ? NULL : g4_array_grow(c->g->a, c->memo, c->n_memo, &c->cap_memo, sizeof *m);
    if (m != NULL) {
        c->memo = m;
        m[c->n_memo++] = (g4_schema_memo){ s, r };
    } else if (!says_nothing) {
        c->g->failed = 1;
    } else {
        c->any = r;
    }
    if (c->g->failed || c->st != G4_OK) return 0;
    c->depth++;
    g4_schema_build(c, s, c->g->rules[r].start, c->g->rules[r].end);
    c->depth--;
    return r;
}

g4_status g4_grammar_schema(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t, const char *schema,
                            size_t len, g4_error *err)
{
    g4_json *doc;
    g4_error why = { 0 };
    *out = NULL;
    g4_status st = g4_json_parse(&doc, a, schema, len, &why);
    if (st != G4_OK) return g4_fail(err, st, "schema: %s", why.message);
    g4_grammar *g = g4_grammar_new(a, t);
    if (g == NULL) {
        g4_json_free(a, doc);
        return g4_fail(err, G4_ERR_MEMORY, "no memory for a grammar");
    }
    g4_schema c = { .g = g, .root = doc, .any = -1, .what = "schema ", .err = err };
    g->root = g4_schema_rule(&c, doc);
    st = c.st;
    g4_free(a, c.memo);
    g4_json_free(a, doc);
    if (st == G4_OK) st = g4_grammar_finish(g, "schema", err);
    if (st != G4_OK) {
        g4_grammar_close(g);
        return st;
    }
    *out = g;
    return G4_OK;
}

g4_status g4_grammar_from_schema(g4_grammar **out, const g4_engine *e, const char *schema, size_t len, g4_error *err)
{
    return g4_grammar_schema(out, g4_engine_allocator(e), g4_engine_tokenizer(e), schema,
                             len > 0 ? len : strlen(schema), err);
}

/* call:NAME{...} for each declared tool, or the one of that name, as a grammar in the call syntax. */
static g4_status g4_grammar_of_tools(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t,
                                     const g4_json *tools, const char *only, g4_error *err)
{
    static const g4_json none = { .kind = G4_JSON_OBJECT };
    *out = NULL;
    if (!g4_json_is(tools, G4_JSON_ARRAY)) return g4_fail(err, G4_ERR_ARGUMENT, "tools must be a list of objects");
    g4_grammar *g = g4_grammar_new(a, t);
    if (g == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for a grammar");
    g4_status st = G4_OK;
    int i = 0, n = 0;
    g->root = g4_net_rule(g, NULL, 0);
    for (const g4_json *tool = tools->child; tool != NULL && st == G4_OK && !g->failed; tool = tool->next, i++) {
        const g4_json *f = g4_json_get(tool, "function"), *name = g4_json_get(f, "name"),
                      *parameters = g4_json_get(f, "parameters");
        char what[80];
        snprintf(what, sizeof what, "tools[%d].function.parameters ", i);
        if (!g4_json_is(name, G4_JSON_STRING)) {
            st = g4_fail(err, G4_ERR_ARGUMENT, "tools[%d]: a tool must have a function with a name", i);
            break;
        }
        if (only != NULL && !g4_json_is_text(name, only)) continue;
        n++;
        if (!g4_json_is(parameters, G4_JSON_OBJECT)) parameters = &none;
        g4_schema c = { .g = g, .root = parameters, .call = 1, .any = -1, .what = what, .err = err };
        int32_t at = g4_net_node(g);
        g4_net_empty(g, g->rules[g->root].start, at);
        at = g4_net_text(g, g4_net_str(g, at, "call:"), name->text, name->text_len);
        if (!g->failed) { /* a tool without parameters takes none; with them, an object whatever else is said */
            int32_t end = g->rules[g->root].end;
            if (parameters->child == NULL) g4_net_empty(g, g4_net_str(g, at, "{}"), end);
            else if (g4_schema_types(parameters) & G4_T_OBJECT) g4_schema_build(&c, parameters, at, end);
            else g4_schema_fail(&c, "type", "must be object");
        }
        st = c.st;
        g4_free(a, c.memo);
    }
    if (st == G4_OK && n == 0 && !g->failed) {
        st = only != NULL ? g4_fail(err, G4_ERR_ARGUMENT, "there is no tool named %.80s", only)
                          : g4_fail(err, G4_ERR_ARGUMENT, "no tools are declared");
    }
    if (st == G4_OK) st = g4_grammar_finish(g, "tools", err);
    if (st != G4_OK) {
        g4_grammar_close(g);
        return st;
    }
    *out = g;
    return G4_OK;
}

g4_status g4_grammar_from_tools(g4_grammar **out, const g4_engine *e, const char *tools, size_t len, const char *only,
                                g4_error *err)
{
    g4_json *doc;
    g4_error why = { 0 };
    const g4_allocator *a = g4_engine_allocator(e);
    *out = NULL;
    g4_status st = g4_json_parse(&doc, a, tools, len > 0 ? len : strlen(tools), &why);
    if (st != G4_OK) return g4_fail(err, st, "tools: %s", why.message);
    st = g4_grammar_of_tools(out, a, g4_engine_tokenizer(e), doc, only, err);
    g4_json_free(a, doc);
    return st;
}

/* ---- 11. Guides: what may come next in an answer, and the answer itself ---------------------------------------------
 *
 * A guide follows the control tokens of an answer and lays the right mask over each place: a thought that has used up
 * its budget is closed, the text after it follows the grammar, a call follows the declared parameters, and so on. Where
 * nothing is asked for, nothing is masked. */

typedef enum { G4_AT_TEXT, G4_AT_THOUGHT, G4_AT_CALL, G4_AFTER_CALL } g4_guide_phase;

struct g4_guide {
    const g4_allocator *a;
    const g4_config *config;
    const g4_tokenizer *t;
    g4_grammar *grammar, *tools;  /* NULL: free */
    int own_tools;                /* tools is this guide's to close */
    g4_guide_options opt;
    g4_guide_phase phase;
    int thinking, thoughts, begun;/* thinking is on; channels opened so far; the answer's text has begun */
    int thought_tokens, line_ended;
    int32_t state;                /* of the grammar in use */
    g4_controls controls;
    g4_token newline;
    g4_constraint constraint;
    int failed;
};

static void g4_guide_only(uint32_t *mask, int n_vocab) { memset(mask, 0, ((size_t)n_vocab + 31) / 32 * sizeof *mask); }
static void g4_guide_allow(uint32_t *mask, g4_token id)
{
    if (id >= 0) g4_bit_set(mask, (uint32_t)id);
}
static void g4_guide_forbid(uint32_t *mask, g4_token id)
{
    if (id >= 0) mask[id / 32] &= ~(1u << (id % 32));
}

/* The ids that end an answer, with or without <|tool_response>. */
static void g4_guide_ends(const g4_guide *g, uint32_t *mask, int response, int allow)
{
    for (uint32_t i = 0; i < g->config->n_stop && i < sizeof g->config->stop / sizeof g->config->stop[0]; i++) {
        g4_token id = (g4_token)g->config->stop[i];
        if (id == g->controls.id[G4_CONTROL_RESPONSE] && !response) continue;
        if (allow) g4_guide_allow(mask, id);
        else g4_guide_forbid(mask, id);
    }
}

static int g4_guide_must_call(const g4_guide *g)
{
    return g->opt.tool_choice == G4_TOOLS_REQUIRED || g->opt.tool_choice == G4_TOOLS_NAMED;
}

/* The grammar's mask for its state; nonzero when nothing fits. */
static int g4_guide_grammar(g4_guide *g, g4_grammar *grammar, uint32_t *mask, int n_vocab)
{
    g->state = g4_grammar_settle(grammar, g->state);
    const uint32_t *m = g->state > 0 ? g4_grammar_mask(grammar, g->state) : NULL;
    if (m == NULL || grammar->n_vocab != (uint32_t)n_vocab) {
        g->failed = grammar->failed;
        return 1;
    }
    memcpy(mask, m, g4_mask_words(grammar) * sizeof *mask);
    return 0;
}

static int g4_guide_mask(void *user, uint32_t *mask, int n_vocab)
{
    g4_guide *g = user;
    switch (g->phase) {
    case G4_AT_THOUGHT:
        if (g->opt.think_budget > 0 && g->thought_tokens >= g->opt.think_budget) { /* the line ends, then the channel */
            g4_guide_only(mask, n_vocab);
            g4_guide_allow(mask, g->line_ended ? g->controls.id[G4_CONTROL_CHANNEL_END] : g->newline);
        } else if (g->grammar != NULL || g4_guide_must_call(g)) { /* what is asked for comes behind the thought */
            g4_guide_ends(g, mask, 1, 0);
            g4_guide_forbid(mask, g->controls.id[G4_CONTROL_CHANNEL]);
            g4_guide_forbid(mask, g->controls.id[G4_CONTROL_CALL]);
        }
        return 0;
    case G4_AT_CALL:
        if (g->tools == NULL) return 0;
        if (g4_guide_grammar(g, g->tools, mask, n_vocab)) return 1;
        if (g4_grammar_accepts(g->tools, g->state)) g4_guide_allow(mask, g->controls.id[G4_CONTROL_CALL_END]);
        return 0;
    case G4_AFTER_CALL: /* another call, or the host's turn */
        if (g->tools == NULL && !g4_guide_must_call(g)) return 0;
        g4_guide_only(mask, n_vocab);
        g4_guide_ends(g, mask, 1, 1);
        if (g->opt.tool_choice != G4_TOOLS_NAMED) g4_guide_allow(mask, g->controls.id[G4_CONTROL_CALL]);
        return 0;
    default: break;
    }
    int may_think = g->thinking && !g->begun && g->thoughts == 0;
    if (g4_guide_must_call(g)) {
        g4_guide_only(mask, n_vocab);
        g4_guide_allow(mask, g->controls.id[G4_CONTROL_CALL]);
        if (may_think) g4_guide_allow(mask, g->controls.id[G4_CONTROL_CHANNEL]);
        return 0;
    }
    if (g->grammar != NULL) {
        if (g4_guide_grammar(g, g->grammar, mask, n_vocab)) return 1;
        if (g4_grammar_accepts(g->grammar, g->state)) g4_guide_ends(g, mask, 0, 1);
        if (may_think) g4_guide_allow(mask, g->controls.id[G4_CONTROL_CHANNEL]);
        if (g->tools != NULL && !g->begun) g4_guide_allow(mask, g->controls.id[G4_CONTROL_CALL]);
        return 0;
    }
    if (g->opt.tool_choice == G4_TOOLS_NONE) g4_guide_forbid(mask, g->controls.id[G4_CONTROL_CALL]);
    return 0;
}

static void g4_guide_accept(void *user, g4_token token)
{
    g4_guide *g = user;
    g4_control control = g4_controls_find(&g->controls, token);
    if (g->phase == G4_AT_THOUGHT) {
        char piece[256];
        int special;
        g->thought_tokens++;
        if (control == G4_CONTROL_CHANNEL_END) {
            g->phase = G4_AT_TEXT;
            if (g->grammar != NULL) g->state = g4_grammar_start(g->grammar);
            return;
        }
        size_t n = g4_tokenizer_piece(g->t, token, piece, &special);
        g->line_ended = !special && n > 0 && piece[n - 1] == '\n';
    } else if (control == G4_CONTROL_CHANNEL) {
        g->phase = G4_AT_THOUGHT;
        g->thoughts++;
        g->thought_tokens = g->line_ended = 0;
    } else if (control == G4_CONTROL_CALL) {
        g->phase = G4_AT_CALL;
        g->begun = 1;
        if (g->tools != NULL) g->state = g4_grammar_start(g->tools);
    } else if (g->phase == G4_AT_CALL) {
        if (control == G4_CONTROL_CALL_END) g->phase = G4_AFTER_CALL;
        else if (g->tools != NULL) g->state = g4_grammar_read(g->tools, g->state, token);
    } else if (g->phase == G4_AT_TEXT) {
        g->begun = 1;
        if (g->grammar != NULL) g->state = g4_grammar_read(g->grammar, g->state, token);
    }
    g->failed = g->failed || (g->grammar != NULL && g->grammar->failed) || (g->tools != NULL && g->tools->failed);
}

void g4_guide_close(g4_guide *g)
{
    if (g == NULL) return;
    if (g->own_tools) g4_grammar_close(g->tools);
    g4_free(g->a, g);
}

g4_status g4_guide_open(g4_guide **out, const g4_chat *c, const g4_guide_options *opt, g4_error *err)
{
    static const g4_guide_options defaults = { 0 };
    *out = NULL;
    if (opt == NULL) opt = &defaults;
    const g4_engine *e = g4_chat_engine(c);
    if (e == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "a chat without an engine has no answers");
    const g4_allocator *a = g4_engine_allocator(e);
    int has_tools = g4_py_truthy(g4_chat_tools(c)), named = opt->tool_choice == G4_TOOLS_NAMED;
    if (opt->think_budget < 0) return g4_fail(err, G4_ERR_ARGUMENT, "think_budget must not be negative");
    if (named && opt->tool_name == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "G4_TOOLS_NAMED needs tool_name");
    if ((named || opt->tool_choice == G4_TOOLS_REQUIRED) && !has_tools)
        return g4_fail(err, G4_ERR_ARGUMENT, "a tool must be called, and the conversation declares none");
    g4_guide *g = g4_alloc(a, 1, sizeof *g);
    if (g == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for a guide");
    const g4_tokenizer *t = g4_engine_tokenizer(e);
    g->a = a;
    g->config = g4_engine_config(e);
    g->opt = *opt;
    g->t = t;
    g->grammar = opt->grammar;
    g->thinking = g4_chat_thinking(c);
    g->constraint = (g4_constraint){ g4_guide_mask, g4_guide_accept, g };
    g4_controls_bind(&g->controls, t);
    g->newline = -1;
    g4_tokens line = { 0 };
    g4_status st = g4_tokenizer_encode(t, a, "\n", 1, 0, &line, err);
    if (st == G4_OK && line.n == 1) g->newline = line.ids[0];
    g4_free(a, line.ids);
    if (st == G4_OK && has_tools && opt->tool_choice != G4_TOOLS_NONE && !opt->loose_tools) {
        g->tools = opt->tools;
        if (g->tools == NULL) {
            st = g4_grammar_of_tools(&g->tools, a, t, g4_chat_tools(c), named ? opt->tool_name : NULL, err);
            g->own_tools = st == G4_OK;
        }
    }
    if (st == G4_OK && g4_chat_in_thought(c)) {
        g->phase = G4_AT_THOUGHT;
        g->thoughts = 1;
        g->line_ended = 1;
    } else if (st == G4_OK && g->grammar != NULL) {
        g->state = g4_grammar_start(g->grammar);
    }
    if (st != G4_OK) {
        g4_guide_close(g);
        return st;
    }
    *out = g;
    return G4_OK;
}

const g4_constraint *g4_guide_constraint(g4_guide *g)
{
    int asked =
        g->grammar != NULL || g->tools != NULL || g->opt.think_budget > 0 || g->opt.tool_choice != G4_TOOLS_AUTO;
    return asked ? &g->constraint : NULL;
}

/* ---- the answer ---- */

typedef struct {
    g4_response *r;
    const g4_generate_options *generate;
} g4_responder;

static int g4_respond_output(void *user, const g4_output *o)
{
    g4_responder *s = user;
    int stop = 0;
    if (s->generate->n_stop > 0) { /* text that may be a stop string is held back, so the tokens say too much */
        if (o->text_len > 0) stop = g4_response_feed(s->r, G4_CONTROL_NONE, o->text, o->text_len);
        if (o->is_special) stop |= g4_response_push(s->r, o->token);
    } else if (o->token >= 0) {
        stop = g4_response_push(s->r, o->token);
    }
    if (s->generate->output != NULL) stop |= s->generate->output(s->generate->user, o);
    return stop;
}

g4_status g4_session_respond(g4_session *s, const g4_chat *c, const g4_respond_options *opt, g4_response **out,
                             g4_result *result, g4_error *err)
{
    static const g4_respond_options defaults = { 0 };
    static const g4_generate_options plain = { 0 };
    g4_guide *guide = NULL;
    if (opt == NULL) opt = &defaults;
    *out = NULL;
    g4_generate_options generate = opt->generate != NULL ? *opt->generate : plain;
    g4_responder responder = { .generate = opt->generate != NULL ? opt->generate : &plain };
    g4_status st = g4_guide_open(&guide, c, &opt->guide, err);
    if (st != G4_OK) return st;
    const g4_constraint *constraint = g4_guide_constraint(guide);
    if (constraint != NULL && generate.constraint != NULL)
        st = g4_fail(err, G4_ERR_ARGUMENT, "a constraint of one's own cannot be combined with a guide");
    if (constraint != NULL) generate.constraint = constraint;
    if (st == G4_OK) st = g4_response_open(&responder.r, g4_chat_engine(c), g4_chat_in_thought(c), opt->part, opt->user, err);
    if (st == G4_OK) {
        generate.output = g4_respond_output;
        generate.user = &responder;
        st = g4_session_generate(s, &generate, result, err);
    }
    if (st == G4_OK && guide->failed) st = g4_fail(err, G4_ERR_MEMORY, "no memory for the token masks");
    if (st == G4_OK) st = g4_response_finish(responder.r, err);
    g4_guide_close(guide);
    if (st != G4_OK) {
        g4_response_close(responder.r);
        return st;
    }
    *out = responder.r;
    return G4_OK;
}

/* ---- 12. Boxes and points
 * -----------------------------------------------------------------------------------------------
 *
 * The family answers "where" with JSON, fenced or not: {"box_2d": [y0, x0, y1, x1], "label": ...} or {"point": [y, x],
 * ...}, in a list or alone, y first, 0..1000 over the whole picture; sometimes as bare lists of four or two numbers.
 * Whatever else stands around is passed over, and an answer that was cut off gives what it still holds. */

static int g4_box_numbers(const g4_json *list, double *v, int most)
{
    int n = 0;
    for (const g4_json *c = g4_json_is(list, G4_JSON_ARRAY) ? list->child : NULL; c != NULL; c = c->next, n++) {
        if (c->kind != G4_JSON_NUMBER || n >= most) return 0;
        v[n] = c->number;
    }
    return n;
}

static int g4_box_pixel(double v, int size)
{
    double p = v * size / 1000.0 + 0.5;
    return p < 0 ? 0 : p > size ? size : (int)p;
}

/* What one JSON value says, if it is a box or a point. */
static int g4_box_read(const g4_json *v, int width, int height, g4_box *out, const g4_json **label)
{
    const g4_json *list = v;
    double at[4];
    *label = NULL;
    if (v->kind == G4_JSON_OBJECT) {
        list = g4_json_get(v, "box_2d");
        if (list == NULL) list = g4_json_get(v, "bbox_2d");
        if (list == NULL) list = g4_json_get(v, "point");
        if (list == NULL) list = g4_json_get(v, "point_2d");
        *label = g4_json_get(v, "label");
    }
    int n = g4_box_numbers(list, at, 4);
    if (n != 4 && n != 2) return 0;
    out->is_point = n == 2;
    out->y0 = g4_box_pixel(at[0], height);
    out->x0 = g4_box_pixel(at[1], width);
    out->y1 = n == 2 ? out->y0 : g4_box_pixel(at[2], height);
    out->x1 = n == 2 ? out->x0 : g4_box_pixel(at[3], width);
    if (out->x1 < out->x0) {
        int x = out->x0;
        out->x0 = out->x1;
        out->x1 = x;
    }
    if (out->y1 < out->y0) {
        int y = out->y0;
        out->y0 = out->y1;
        out->y1 = y;
    }
    return 1;
}

/* Where each bracket closes (0: it does not), strings respected. stack has room for n. */
static void g4_box_brackets(const char *s, size_t n, size_t *close, size_t *stack)
{
    size_t depth = 0;
    int in_string = 0;
    for (size_t i = 0; i < n; i++) {
        char ch = s[i];
        if (ch == '\n') in_string = 0; /* no JSON string goes over a line's end */
        if (in_string && ch == '\\') i++;
        else if (ch == '"' && depth > 0) in_string = !in_string;
        else if (in_string) continue;
        else if (ch == '{' || ch == '[') stack[depth++] = i;
        else if ((ch == '}' || ch == ']') && depth > 0 && s[stack[depth - 1]] == (ch == '}' ? '{' : '['))
            close[stack[--depth]] = i + 1;
    }
}

g4_status g4_boxes_read(g4_box **out, int *n_out, const char *text, size_t len, int width, int height,
                        const g4_allocator *a, g4_error *err)
{
    int n = 0, cap = 0;
    *out = NULL;
    *n_out = 0;
    if (width <= 0 || height <= 0)
        return g4_fail(err, G4_ERR_ARGUMENT, "boxes in a picture of %d x %d pixels", width, height);
    g4_box *boxes = NULL;
    size_t *close = g4_alloc(a, len + 1, sizeof *close), *stack = g4_alloc(a, len + 1, sizeof *stack);
    int failed = close == NULL || stack == NULL;
    if (!failed) g4_box_brackets(text, len, close, stack);
    for (size_t i = 0; i < len && !failed; i++) {
        if (close[i] == 0) continue;
        /* only short values can be one; what contains others is entered */
        g4_json *v = NULL;
        g4_status st = close[i] - i <= 4096 ? g4_json_parse(&v, a, text + i, close[i] - i, NULL) : G4_ERR_FORMAT;
        g4_box box = { 0 };
        const g4_json *label;
        failed = st == G4_ERR_MEMORY;
        if (st == G4_OK && g4_box_read(v, width, height, &box, &label)) {
            g4_box *p = g4_array_grow(a, boxes, n, &cap, sizeof *p);
            size_t label_len = g4_json_is(label, G4_JSON_STRING) ? label->text_len : 0;
            box.label = g4_alloc(a, label_len + 1, 1);
            if (box.label != NULL && label_len > 0) memcpy(box.label, label->text, label_len);
            failed = p == NULL || box.label == NULL;
            if (p != NULL) boxes = p;
            if (!failed) boxes[n++] = box;
            else g4_free(a, box.label);
            i = close[i] - 1;
        }
        g4_json_free(a, v);
    }
    g4_free(a, close);
    g4_free(a, stack);
    if (failed) {
        g4_boxes_free(boxes, n, a);
        return g4_fail(err, G4_ERR_MEMORY, "no memory for the boxes of an answer");
    }
    *out = boxes;
    *n_out = n;
    return G4_OK;
}

void g4_boxes_free(g4_box *boxes, int n, const g4_allocator *a)
{
    for (int i = 0; i < n; i++) g4_free(a, boxes[i].label);
    g4_free(a, boxes);
}
