/* grammar.c - a network against the vocabulary: which tokens may come next. A position in the text is a set of (node,
 * stack of return nodes); such sets are numbered as they are met, so that reading a byte is mostly a look into a table
 * of 256 (a lazy automaton). The token mask of a position is the union over its nodes. What a token does inside the
 * rule that a node belongs to does not depend on the stack: it is computed once per node, against the whole vocabulary
 * sorted by bytes, and kept, with the list of tokens that run out of the rule's end. Only those are tried against the
 * real stack. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define G4_MAX_STATES 8192 /* more are forgotten when the grammar settles */
#define G4_MAX_MASKS 256   /* kept at a time; one over the real vocabulary has 32 KiB */
#define G4_MAX_LIST 2048   /* tokens that are kept as a list; more as a mask */

/* Stacks are numbered; these two are always there. */
#define G4_STACK_EMPTY 0
#define G4_STACK_UNKNOWN 1 /* the rest below a rule that is looked at by itself */

typedef struct {
    int32_t node, stack;
} g4_place;

typedef struct { /* the tokens that are text, sorted by their bytes */
    int n;
    uint32_t *id;     /* (n) */
    uint32_t *offset; /* (n + 1) where its bytes begin */
    uint8_t *shared;  /* (n) leading bytes shared with the word before */
    char *bytes;
    int32_t first[257]; /* the first word that begins with this byte or a greater one */
} g4_words;

typedef struct {
    uint32_t epoch, hash; /* an epoch that is not the table's: the slot is free */
    int32_t index;        /* of the element */
} g4_slot;

typedef struct { /* open addressing: where in a list the elements with a hash are */
    g4_slot *slots;
    int n_slots; /* a power of two */
    uint32_t epoch;
} g4_hash_table;

typedef struct {
    int n;
    uint8_t accepts; /* the grammar may end here */
    uint8_t escaped; /* the rule that is looked at by itself was left */
    uint32_t hash;
    uint32_t *mask;    /* cached; NULL: not yet */
    int32_t next[256]; /* state after a byte; -1: not known yet, 0: none */
    g4_place places[]; /* n of them, sorted */
} g4_grammar_state;

typedef struct { /* tokens that a node allows whatever the stack */
    int n_inside, n_outside;
    uint32_t *inside;  /* tokens that stay in the rule, as a list, or as a bit mask when n_inside is -1 */
    uint32_t *outside; /* words that leave it */
} g4_ahead;

struct g4_grammar {
    const g4_allocator *a;
    const g4_tokenizer *t;
    g4_net net;
    g4_words words;
    g4_controls controls;
    g4_place *stacks; /* a return node on another stack */
    int n_stacks, cap_stacks;
    g4_hash_table stack_table;
    g4_grammar_state **states; /* states[0] is unused: "no state" */
    int n_states, cap_states, n_masks;
    g4_hash_table state_table;
    g4_ahead *ahead;
    int n_ahead, cap_ahead;
    int32_t *ahead_of;     /* (n_nodes) index in ahead, plus one; 0: not known yet */
    g4_place *work, *core; /* of the closure: all places met, and those that read something */
    int n_work, cap_work, cap_core;
    g4_hash_table work_table;
    uint32_t generation; /* counts how often states were forgotten */
    g4_asker asker;      /* with the halt of the call that is in */
    g4_status failed;    /* since it began: out of memory, or halted. What was not completed is not remembered */
    atomic_int busy;     /* a call is in */
};

static void g4_grammar_no_memory(g4_grammar *g)
{
    if (g->failed == G4_OK) g->failed = g4_halted(g->asker.halt) ? G4_ERR_CANCELED : G4_ERR_MEMORY;
}

/* Has something failed, or must the call end? */
static inline int g4_grammar_stops(g4_grammar *g)
{
    if (g->failed == G4_OK && g4_ask(&g->asker)) g->failed = G4_ERR_CANCELED;
    return g->failed != G4_OK;
}

/* ---- The vocabulary ------------------------------------------------------------------------------ */

typedef struct {               /* 16 bytes, since a quarter of a million are sorted */
    uint32_t key;              /* the first four bytes, the first on top: most comparisons need no more */
    uint32_t id : 24, len : 8; /* the tokenizer has less than 2^20 ids, of at most 255 bytes */
    const char *text;
} g4_word;

static int g4_word_compare(const void *pa, const void *pb)
{
    const g4_word *a = pa, *b = pb;
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    const int c = memcmp(a->text, b->text, a->len < b->len ? a->len : b->len);
    if (c != 0) return c;
    if (a->len != b->len) return a->len < b->len ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

/* The tokens that are text, unsorted, and all their bytes; returns their number. *longest: the most characters. */
static uint32_t g4_words_collect(const g4_tokenizer *t, g4_word *words, g4_buf *bytes, int *longest, g4_halt *halt)
{
    uint32_t n = 0;
    g4_asker asker = { .halt = halt };
    for (uint32_t id = 0; id < t->n_vocab && !g4_ask(&asker); id++) {
        char piece[256];
        int special, n_chars = 0;
        const size_t len = g4_tokenizer_piece(t, (g4_token)id, piece, &special);
        if (special || len == 0) continue;
        g4_word *w = &words[n++];
        *w = (g4_word) { .id = id & 0xffffff, .len = len & 0xff };
        for (size_t i = 0; i < 4; i++) w->key = w->key << 8 | (i < len ? (unsigned char)piece[i] : 0u);
        for (size_t i = 0; i < len; i++) n_chars += !g4_utf8_continues(piece[i]);
        *longest = g4_max_int(*longest, n_chars);
        g4_buf_add(bytes, piece, len);
    }
    if (bytes->failed) return n;
    const char *text = bytes->data; /* it has stopped moving */
    for (uint32_t i = 0; i < n; text += words[i++].len) words[i].text = text;
    return n;
}

/* Fill the arrays, which have room, from sorted words. */
static void g4_words_fill(g4_words *out, const g4_word *words, uint32_t n)
{
    uint32_t offset = 0;
    for (uint32_t i = 0; i < n; i++) {
        const g4_word *w = &words[i], *before = i > 0 ? &words[i - 1] : NULL;
        size_t shared = 0;
        while (before != NULL && shared < w->len && shared < before->len && w->text[shared] == before->text[shared])
            shared++;
        memcpy(out->bytes + offset, w->text, w->len);
        out->id[i] = w->id;
        out->shared[i] = (uint8_t)shared;
        out->offset[i] = offset;
        offset += w->len;
    }
    out->offset[n] = offset;
    out->n = (int)n;
    int first = 0;
    for (int byte = 0; byte < 256; byte++) {
        while (first < out->n && (unsigned char)out->bytes[out->offset[first]] < byte) first++;
        out->first[byte] = first;
    }
    out->first[256] = out->n;
}

/* Sort the plain tokens by their bytes. Returns 0 when out of memory or halted. */
static int g4_words_open(g4_words *out, const g4_allocator *a, const g4_tokenizer *t, int *longest, g4_halt *halt)
{
    g4_buf bytes = { .a = a };
    g4_word *words = g4_alloc(a, t->n_vocab, sizeof *words);
    const uint32_t n = words != NULL ? g4_words_collect(t, words, &bytes, longest, halt) : 0;
    out->id = g4_alloc(a, n, sizeof *out->id);
    out->offset = g4_alloc(a, (size_t)n + 1, sizeof *out->offset);
    out->shared = g4_alloc(a, n, 1);
    out->bytes = g4_alloc(a, bytes.len, 1);
    int ok = words != NULL && !bytes.failed && out->id != NULL && out->offset != NULL && out->shared != NULL &&
             out->bytes != NULL;
    ok = ok && g4_sort(a, words, n, sizeof *words, g4_word_compare, halt);
    if (ok) g4_words_fill(out, words, n);
    g4_free(a, words);
    g4_buf_free(&bytes);
    return ok;
}

static void g4_words_close(g4_words *w, const g4_allocator *a)
{
    g4_free(a, w->id);
    g4_free(a, w->offset);
    g4_free(a, w->shared);
    g4_free(a, w->bytes);
}

static const char *g4_word_text(const g4_words *w, uint32_t i, int *len)
{
    *len = (int)(w->offset[i + 1] - w->offset[i]);
    return w->bytes + w->offset[i];
}

/* ---- Numbering by hash --------------------------------------------------------------------------- */

static uint64_t g4_mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static uint64_t g4_mix_place(uint64_t h, int32_t node, int32_t stack)
{
    return g4_mix(g4_mix(h, (uint32_t)node), (uint32_t)stack);
}

/* The i-th slot to look into for a hash. */
static inline g4_slot *g4_table_slot(const g4_hash_table *t, uint32_t hash, uint32_t i)
{
    return &t->slots[(hash + i) & (uint32_t)(t->n_slots - 1)];
}

/* Put an element, which is not there, where there is room. */
static void g4_table_put(g4_hash_table *t, uint32_t hash, int32_t index)
{
    uint32_t i = 0;
    while (g4_table_slot(t, hash, i)->epoch == t->epoch) i++;
    *g4_table_slot(t, hash, i) = (g4_slot) { t->epoch, hash, index };
}

/* Make room for element number n, at most half of the slots being used. Returns 0 when out of memory. */
static int g4_table_reserve(g4_hash_table *t, const g4_allocator *a, int n)
{
    if (n * 2 < t->n_slots) return 1;
    g4_hash_table grown = { .n_slots = t->n_slots == 0 ? 256 : t->n_slots * 2, .epoch = 1 };
    grown.slots = g4_alloc(a, (size_t)grown.n_slots, sizeof *grown.slots);
    if (grown.slots == NULL) return 0;
    for (int i = 0; i < t->n_slots; i++)
        if (t->slots[i].epoch == t->epoch) g4_table_put(&grown, t->slots[i].hash, t->slots[i].index);
    g4_free(a, t->slots);
    *t = grown;
    return 1;
}

static void g4_table_clear(g4_hash_table *t)
{
    if (++t->epoch != 0) return;
    memset(t->slots, 0, (size_t)t->n_slots * sizeof *t->slots);
    t->epoch = 1;
}

/* The index in the list of this place; -1: it is not there. */
static int32_t g4_table_find_place(const g4_hash_table *t, uint32_t hash, const g4_place *list, int32_t node,
                                   int32_t stack)
{
    const g4_slot *slot;
    for (uint32_t i = 0; (slot = g4_table_slot(t, hash, i))->epoch == t->epoch; i++)
        if (slot->hash == hash && list[slot->index].node == node && list[slot->index].stack == stack)
            return slot->index;
    return -1;
}

/* ---- Stacks, closures, states -------------------------------------------------------------------- */

/* The number of the stack with `node` on top of `below`. */
static int32_t g4_stack_push(g4_grammar *g, int32_t node, int32_t below)
{
    const uint32_t hash = (uint32_t)g4_mix_place(1, node, below);
    if (!g4_table_reserve(&g->stack_table, g->a, g->n_stacks)) {
        g4_grammar_no_memory(g);
        return G4_STACK_EMPTY;
    }
    const int32_t known = g4_table_find_place(&g->stack_table, hash, g->stacks, node, below);
    if (known >= 0) return known;
    g4_place *stacks = g4_array_grow(g->a, g->stacks, g->n_stacks, &g->cap_stacks, sizeof *stacks);
    if (stacks == NULL) {
        g4_grammar_no_memory(g);
        return G4_STACK_EMPTY;
    }
    g->stacks = stacks;
    stacks[g->n_stacks] = (g4_place) { node, below };
    g4_table_put(&g->stack_table, hash, g->n_stacks);
    return g->n_stacks++;
}

static void g4_closure_begin(g4_grammar *g)
{
    g->n_work = 0;
    g4_table_clear(&g->work_table);
}

/* Add a place to the closure unless it is there. */
static void g4_closure_add(g4_grammar *g, int32_t node, int32_t stack)
{
    const uint32_t hash = (uint32_t)g4_mix_place(2, node, stack);
    if (g4_grammar_stops(g)) return;
    if (!g4_table_reserve(&g->work_table, g->a, g->n_work)) {
        g4_grammar_no_memory(g);
        return;
    }
    if (g4_table_find_place(&g->work_table, hash, g->work, node, stack) >= 0) return;
    g4_place *work = g4_array_grow(g->a, g->work, g->n_work, &g->cap_work, sizeof *work);
    if (work == NULL) {
        g4_grammar_no_memory(g);
        return;
    }
    g->work = work;
    work[g->n_work] = (g4_place) { node, stack };
    g4_table_put(&g->work_table, hash, g->n_work++);
}

static int g4_place_compare(const void *pa, const void *pb)
{
    const g4_place *a = pa, *b = pb;
    if (a->node != b->node) return a->node < b->node ? -1 : 1;
    return (a->stack > b->stack) - (a->stack < b->stack);
}

/* The number of the state that is this sorted set; -1: there is none yet. */
static int32_t g4_state_find(const g4_grammar *g, const g4_grammar_state *like, const g4_place *places)
{
    const g4_hash_table *t = &g->state_table;
    const g4_slot *slot;
    for (uint32_t i = 0; (slot = g4_table_slot(t, like->hash, i))->epoch == t->epoch; i++) {
        const g4_grammar_state *s = g->states[slot->index];
        if (slot->hash == like->hash && s->n == like->n && s->accepts == like->accepts && s->escaped == like->escaped &&
            (s->n == 0 || memcmp(s->places, places, (size_t)s->n * sizeof *places) == 0))
            return slot->index;
    }
    return -1;
}

/* The number of the state that is this sorted set of n places; a new one is made from it. */
static int32_t g4_state_of(g4_grammar *g, const g4_place *places, int n, int accepts, int escaped)
{
    g4_grammar_state head = { .n = n, .accepts = (uint8_t)accepts, .escaped = (uint8_t)escaped };
    uint64_t h = g4_mix(3, (uint64_t)accepts * 2 + (uint64_t)escaped);
    for (int i = 0; i < n; i++) h = g4_mix_place(h, places[i].node, places[i].stack);
    head.hash = (uint32_t)h;
    if (!g4_table_reserve(&g->state_table, g->a, g->n_states)) {
        g4_grammar_no_memory(g);
        return 0;
    }
    const int32_t known = g4_state_find(g, &head, places);
    if (known >= 0) return known;
    g4_grammar_state *s = g4_alloc(g->a, 1, sizeof *s + (size_t)n * sizeof *places);
    g4_grammar_state **states = g4_array_grow(g->a, g->states, g->n_states, &g->cap_states, sizeof *states);
    if (states != NULL) g->states = states;
    if (s == NULL || states == NULL) {
        g4_free(g->a, s);
        g4_grammar_no_memory(g);
        return 0;
    }
    *s = head;
    memset(s->next, -1, sizeof s->next);
    if (n > 0) memcpy(s->places, places, (size_t)n * sizeof *places);
    states[g->n_states] = s;
    g4_table_put(&g->state_table, s->hash, g->n_states);
    return g->n_states++;
}

/* Follow what leads on from a place without reading: empty edges, calls, the return at a rule's end. Returns whether
 * something is read there. */
static int g4_closure_follow(g4_grammar *g, g4_place p, int *accepts, int *escaped)
{
    const g4_net *net = &g->net;
    int reads = 0;
    if (net->nodes[p.node].is_end) {
        if (p.stack == G4_STACK_EMPTY)
            *accepts = 1;
        else if (p.stack == G4_STACK_UNKNOWN)
            *escaped = 1;
        else
            g4_closure_add(g, g->stacks[p.stack].node, g->stacks[p.stack].stack);
    }
    for (int32_t e = net->nodes[p.node].first; e >= 0; e = net->edges[e].next) {
        const g4_edge *edge = &net->edges[e];
        if (edge->kind == G4_EDGE_EMPTY) {
            g4_closure_add(g, edge->to, p.stack);
        } else if (edge->kind == G4_EDGE_CALL) { /* a call at the very end of a rule needs no way back */
            const int is_tail = net->nodes[edge->to].is_end && net->nodes[edge->to].first < 0;
            const int32_t stack = is_tail ? p.stack : g4_stack_push(g, edge->to, p.stack);
            if (!g->failed) g4_closure_add(g, net->rules[edge->operand].start, stack);
        } else {
            reads = 1;
        }
    }
    return reads;
}

/* Complete the closure and number it: the places that read something. 0: none. */
static int32_t g4_closure_end(g4_grammar *g)
{
    int n_core = 0, accepts = 0, escaped = 0;
    for (int i = 0; i < g->n_work && !g4_grammar_stops(g); i++) {
        const g4_place p = g->work[i];
        if (!g4_closure_follow(g, p, &accepts, &escaped)) continue;
        g4_place *core = g4_array_grow(g->a, g->core, n_core, &g->cap_core, sizeof *core);
        if (core == NULL) {
            g4_grammar_no_memory(g);
            break;
        }
        g->core = core;
        core[n_core++] = p;
    }
    if (g->failed || (n_core == 0 && !accepts && !escaped)) return 0;
    if (!g4_sort(g->a, g->core, (size_t)n_core, sizeof *g->core, g4_place_compare, g->asker.halt)) {
        g4_grammar_no_memory(g);
        return 0;
    }
    return g4_state_of(g, g->core, n_core, accepts, escaped);
}

/* The state after a byte, or after a control token when control is not NONE. 0: it does not fit. */
static int32_t g4_grammar_step_slow(g4_grammar *g, int32_t state, int byte, g4_control control)
{
    const g4_grammar_state *s = g->states[state];
    g4_closure_begin(g);
    for (int i = 0; i < s->n && !g4_grammar_stops(g); i++)
        for (int32_t e = g->net.nodes[s->places[i].node].first; e >= 0; e = g->net.edges[e].next) {
            const g4_edge *edge = &g->net.edges[e];
            const int fits = control != G4_CONTROL_NONE
                                 ? edge->kind == G4_EDGE_CONTROL && edge->operand == (int32_t)control
                                 : edge->kind == G4_EDGE_BYTES && byte >= edge->low && byte <= edge->high;
            if (fits) g4_closure_add(g, edge->to, s->places[i].stack);
        }
    return g4_closure_end(g);
}

static inline int32_t g4_grammar_step(g4_grammar *g, int32_t state, unsigned char byte)
{
    int32_t next = g->states[state]->next[byte];
    if (next < 0) {
        next = g4_grammar_step_slow(g, state, byte, G4_CONTROL_NONE);
        if (!g->failed) g->states[state]->next[byte] = next;
    }
    return next;
}

/* ---- Words against states ------------------------------------------------------------------------ */

#define G4_ALIVE 256 /* behind the last byte of any word */

typedef struct { /* words are read in the order of their bytes, so that leading ones they share are read once */
    int32_t state[G4_ALIVE + 1]; /* after so many bytes of the last word */
    int dead; /* that word fitted up to so many bytes, or is ALIVE: what shares more with it ends there too */
} g4_word_walk;

/* Does this word fit, whose first `shared` bytes are those of the word before? */
static inline int g4_walk_word(g4_grammar *g, g4_word_walk *k, const char *s, int len, int shared)
{
    if (shared > k->dead) return 0;
    for (int i = shared; i < len; i++) {
        k->state[i + 1] = g4_grammar_step(g, k->state[i], (unsigned char)s[i]);
        if (k->state[i + 1] != 0) continue;
        k->dead = i;
        return 0;
    }
    k->dead = G4_ALIVE;
    return 1;
}

typedef struct {      /* what is ahead of a node, while it is made */
    uint32_t *inside; /* a mask */
    uint32_t *outside;
    int n_inside, n_outside, cap_outside;
} g4_ahead_lists;

/* Sort the words `from` to before `end`, which begin with the same byte, into those that fit from a state on and those
 * that do not, but leave the rule on the way. */
static void g4_ahead_words(g4_grammar *g, g4_ahead_lists *out, int32_t state, int from, int end)
{
    g4_word_walk k = { .state = { state }, .dead = G4_ALIVE };
    int inside = 0; /* so many bytes of the last word are known to stay in the rule: looked at only when it matters */
    for (int w = from; w < end && !g4_grammar_stops(g); w++) {
        const int shared = w > from ? g->words.shared[w] : 0;
        if (shared <= k.dead) {
            int len;
            const char *s = g4_word_text(&g->words, (uint32_t)w, &len);
            inside = g4_min_int(inside, shared);
            if (g4_walk_word(g, &k, s, len, shared)) {
                g4_mask_set(out->inside, g->words.id[w]);
                out->n_inside++;
                continue;
            }
        }
        while (inside < k.dead && !g->states[k.state[inside + 1]]->escaped) inside++;
        if (inside == k.dead) continue;
        uint32_t *outside = g4_array_grow(g->a, out->outside, out->n_outside, &out->cap_outside, sizeof *outside);
        if (outside == NULL) {
            g4_grammar_no_memory(g);
            return;
        }
        out->outside = outside;
        outside[out->n_outside++] = (uint32_t)w;
    }
}

/* The n tokens of a mask as a list, or NULL when they are too many for one. */
static uint32_t *g4_mask_list(const g4_grammar *g, const uint32_t *mask, int n)
{
    uint32_t *list = n < G4_MAX_LIST ? g4_alloc(g->a, (size_t)n + 1, sizeof *list) : NULL;
    if (list == NULL) return NULL;
    int k = 0;
    for (size_t i = 0; i < g4_mask_words((int)g->t->n_vocab); i++)
        for (uint32_t bit = 0, bits = mask[i]; bits != 0; bit++, bits >>= 1)
            if (bits & 1u) list[k++] = (uint32_t)i * 32 + bit;
    return list;
}

/* What is ahead of a node, its rule's rest being unknown; nothing after a failure. */
static void g4_ahead_make(g4_grammar *g, g4_ahead *out, int32_t node)
{
    /* Not closed: what lies behind empty edges are places of their own in every state that holds this one. */
    const g4_place start = { node, G4_STACK_UNKNOWN };
    const int32_t state = g4_state_of(g, &start, 1, 0, 0);
    g4_ahead_lists lists = { .inside = g4_alloc(g->a, g4_mask_words((int)g->t->n_vocab), sizeof *lists.inside) };
    if (lists.inside == NULL) g4_grammar_no_memory(g);
    for (int byte = 0; byte < 256 && !g4_grammar_stops(g); byte++) {
        const int from = g->words.first[byte], end = g->words.first[byte + 1];
        if (from < end && g4_grammar_step(g, state, (unsigned char)byte) != 0)
            g4_ahead_words(g, &lists, state, from, end);
    }
    if (g->failed) {
        g4_free(g->a, lists.inside);
        g4_free(g->a, lists.outside);
        return;
    }
    uint32_t *list = g4_mask_list(g, lists.inside, lists.n_inside);
    *out = (g4_ahead) { .n_inside = list != NULL ? lists.n_inside : -1,
                        .n_outside = lists.n_outside,
                        .inside = list != NULL ? list : lists.inside,
                        .outside = lists.outside };
    if (list != NULL) g4_free(g->a, lists.inside);
}

static const g4_ahead *g4_ahead_of(g4_grammar *g, int32_t node)
{
    node = g->net.nodes[node].alias;
    if (g->ahead_of[node] > 0) return &g->ahead[g->ahead_of[node] - 1];
    g4_ahead *ahead = g4_array_grow(g->a, g->ahead, g->n_ahead, &g->cap_ahead, sizeof *ahead);
    if (ahead == NULL) {
        g4_grammar_no_memory(g);
        return NULL;
    }
    g->ahead = ahead;
    ahead += g->n_ahead;
    g4_ahead_make(g, ahead, node);
    if (g->failed) return NULL;
    g->ahead_of[node] = ++g->n_ahead;
    return ahead;
}

/* ---- Masks --------------------------------------------------------------------------------------- */

/* The tokens that a node of the state allows: those that stay in its rule, and of those that leave it the ones that fit
 * what the state has below. */
static void g4_mask_add_node(g4_grammar *g, uint32_t *mask, int32_t state, int32_t node)
{
    const g4_ahead *ahead = g4_ahead_of(g, node);
    if (ahead == NULL) return;
    if (ahead->n_inside < 0)
        for (size_t i = 0; i < g4_mask_words((int)g->t->n_vocab); i++) mask[i] |= ahead->inside[i];
    for (int i = 0; i < ahead->n_inside; i++) g4_mask_set(mask, ahead->inside[i]);
    g4_word_walk k = { .state = { state }, .dead = G4_ALIVE };
    const char *before = NULL;
    int n_before = 0;
    for (int i = 0; i < ahead->n_outside && !g4_grammar_stops(g); i++) {
        const uint32_t w = ahead->outside[i];
        int len, shared = 0;
        const char *s = g4_word_text(&g->words, w, &len);
        while (shared < len && shared < n_before && s[shared] == before[shared]) shared++;
        if (g4_walk_word(g, &k, s, len, shared)) g4_mask_set(mask, g->words.id[w]);
        before = s;
        n_before = len;
    }
}

static void g4_mask_add_controls(const g4_grammar *g, uint32_t *mask, int32_t node)
{
    for (int32_t e = g->net.nodes[node].first; e >= 0; e = g->net.edges[e].next)
        if (g->net.edges[e].kind == G4_EDGE_CONTROL) g4_mask_allow(mask, g->controls.id[g->net.edges[e].operand]);
}

/* Give the masks back when many are kept. */
static void g4_masks_forget(g4_grammar *g)
{
    if (g->n_masks < G4_MAX_MASKS) return;
    for (int i = 1; i < g->n_states; i++) {
        g4_free(g->a, g->states[i]->mask);
        g->states[i]->mask = NULL;
    }
    g->n_masks = 0;
}

const uint32_t *g4_grammar_mask(g4_grammar *g, int32_t state)
{
    const g4_grammar_state *s = g->states[state];
    if (s->mask != NULL) return s->mask;
    uint32_t *mask = g4_alloc(g->a, g4_mask_words((int)g->t->n_vocab), sizeof *mask);
    if (mask == NULL) {
        g4_grammar_no_memory(g);
        return NULL;
    }
    int32_t before = -1;
    for (int i = 0; i < s->n && !g4_grammar_stops(g); i++) {
        const int32_t node = s->places[i].node, alias = g->net.nodes[node].alias;
        g4_mask_add_controls(g, mask, node);
        if (alias != before) g4_mask_add_node(g, mask, state, node); /* else the same node on another stack */
        before = alias;
    }
    if (g->failed) {
        g4_free(g->a, mask);
        return NULL;
    }
    g4_masks_forget(g);
    g->states[state]->mask = mask;
    g->n_masks++;
    return mask;
}

/* ---- The grammar --------------------------------------------------------------------------------- */

g4_status g4_grammar_enter(g4_grammar *g, g4_halt *halt, g4_error *err)
{
    if (atomic_exchange(&g->busy, 1))
        return g4_fail(err, G4_ERR_ARGUMENT, "this grammar serves another thread's answer: it serves one at a time");
    g->failed = G4_OK;
    g->asker = (g4_asker) { .halt = halt };
    return G4_OK;
}

g4_status g4_grammar_leave(g4_grammar *g, g4_error *err)
{
    const g4_status st = g->failed;
    g4_halt *halt = g->asker.halt;
    g->failed = G4_OK;
    g->asker = (g4_asker) { 0 };
    atomic_store(&g->busy, 0);
    if (st == G4_ERR_CANCELED) return g4_halt_check(halt, err);
    return st == G4_OK ? G4_OK : g4_fail(err, st, "no memory for the token masks");
}

int32_t g4_grammar_settle(g4_grammar *g, int32_t state)
{
    if (g->n_states < G4_MAX_STATES || state == 0) return state;
    g4_grammar_state *kept = g->states[state];
    for (int i = 1; i < g->n_states; i++) {
        if (i == state) continue;
        g4_free(g->a, g->states[i]->mask);
        g4_free(g->a, g->states[i]);
    }
    memset(kept->next, -1, sizeof kept->next);
    g->states[1] = kept;
    g->n_states = 2;
    g->generation++;
    g->n_masks = kept->mask != NULL;
    g4_table_clear(&g->state_table);
    g4_table_put(&g->state_table, kept->hash, 1);
    return 1;
}

int g4_grammar_accepts(const g4_grammar *g, int32_t state) { return state > 0 && g->states[state]->accepts; }
int g4_grammar_failed(const g4_grammar *g) { return g->failed != G4_OK; }
uint32_t g4_grammar_generation(const g4_grammar *g) { return g->generation; }
uint32_t g4_grammar_n_vocab(const g4_grammar *g) { return g->t->n_vocab; }

int32_t g4_grammar_start(g4_grammar *g)
{
    g4_closure_begin(g);
    g4_closure_add(g, g->net.rules[g->net.root].start, G4_STACK_EMPTY);
    return g->failed ? 0 : g4_closure_end(g);
}

int32_t g4_grammar_read(g4_grammar *g, int32_t state, g4_token token)
{
    char piece[256];
    int special;
    if (state == 0 || token < 0 || (uint32_t)token >= g->t->n_vocab) return 0;
    const size_t n = g4_tokenizer_piece(g->t, token, piece, &special);
    if (special) {
        const g4_control control = g4_controls_find(&g->controls, token);
        return control != G4_CONTROL_NONE ? g4_grammar_step_slow(g, state, 0, control) : 0;
    }
    for (size_t i = 0; i < n && state != 0; i++) state = g4_grammar_step(g, state, (unsigned char)piece[i]);
    return n == 0 ? 0 : state;
}

void g4_grammar_close(g4_grammar *g)
{
    if (g == NULL || atomic_load(&g->busy)) return;
    const g4_allocator *a = g->a;
    for (int i = 1; i < g->n_states; i++) {
        g4_free(a, g->states[i]->mask);
        g4_free(a, g->states[i]);
    }
    for (int i = 0; i < g->n_ahead; i++) {
        g4_free(a, g->ahead[i].inside);
        g4_free(a, g->ahead[i].outside);
    }
    g4_net_free(&g->net);
    g4_words_close(&g->words, a);
    g4_free(a, g->stacks);
    g4_free(a, g->stack_table.slots);
    g4_free(a, g->states);
    g4_free(a, g->state_table.slots);
    g4_free(a, g->ahead);
    g4_free(a, g->ahead_of);
    g4_free(a, g->work);
    g4_free(a, g->core);
    g4_free(a, g->work_table.slots);
    g4_free(a, g);
}

g4_status g4_grammar_check(g4_grammar **out, const g4_engine *e, const char *text, const char *what, g4_halt *halt,
                           g4_error *err)
{
    if (out == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    const g4_status st = g4_engine_check(e, err);
    if (st != G4_OK) return st;
    if (text == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "%s is NULL", what);
    return g4_halt_check(g4_engine_halt(e, halt), err);
}

g4_status g4_grammar_new(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t, g4_halt *halt, g4_error *err)
{
    g4_grammar *g = g4_alloc(a, 1, sizeof *g);
    *out = g;
    if (g != NULL) {
        g->a = g->net.a = a;
        g->net.asker.halt = halt;
        g->t = t;
        g->n_stacks = 2;
        g->cap_stacks = 16;
        g->stacks = g4_alloc(a, (size_t)g->cap_stacks, sizeof *g->stacks);
        g->n_states = 1;
        g->cap_states = 16;
        g->states = g4_alloc(a, (size_t)g->cap_states, sizeof *g->states);
        g4_controls_bind(&g->controls, t);
        if (g->stacks != NULL && g->states != NULL && g4_words_open(&g->words, a, t, &g->net.longest_token, halt))
            return G4_OK;
        g4_grammar_close(g);
        *out = NULL;
    }
    return g4_fail_short(halt, err, "no memory for a grammar");
}

g4_net *g4_grammar_net(g4_grammar *g) { return &g->net; }

g4_status g4_grammar_finish(g4_grammar **out, g4_grammar *g, g4_status st, const char *what, g4_error *err)
{
    *out = NULL;
    if (st == G4_OK) st = g4_net_finish(&g->net, what, err);
    if (st == G4_OK) {
        g->ahead_of = g4_alloc(g->a, (size_t)g->net.n_nodes, sizeof *g->ahead_of);
        if (g->ahead_of == NULL) st = g4_fail(err, G4_ERR_MEMORY, "%s: no memory for the grammar", what);
    }
    if (st == G4_OK)
        *out = g;
    else
        g4_grammar_close(g);
    return st;
}
