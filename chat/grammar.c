/* grammar.c - a network against the vocabulary: which tokens may come next. A position in the text is a set of places:
 * what remains of a lexeme, the node behind it, and the stacks of nodes to return to. Such sets are numbered as they
 * are met, so that reading a byte is mostly a look into a table of 256 (a lazy automaton). Stacks are shared: all those
 * of a place are one set of frames, each with the set of what may be below it, so that what can be read in many ways
 * costs what it costs once.
 *
 * The token mask of a position is the union over its places. Which tokens stay inside a lexeme, and what is left of
 * those that run over its end, does not depend on the stacks: it is computed once for each expression, its counts cut
 * to what a token can see, and kept, by the vocabulary if it was costly. What is left, sorted, is then read from the
 * state behind the lexeme. Strings allow nearly all tokens: the vocabulary has these as ready sets. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define G4_MAX_PLACES 20000            /* of a state: more would make every byte slow */
#define G4_MAX_UNIONS 200000           /* of stacks, for one byte */
#define G4_MAX_WORK 4000000            /* places, nodes and frames that are looked at for one mask */
#define G4_MADE_WORK 24                /* as many as an expression counts that is made for it, */
#define G4_ROW_WORK 256                /* and a row of a lexeme's steps */
#define G4_MAX_STATES 8192             /* more are forgotten when the grammar settles, ... */
#define G4_BURY 64                     /* ... and so many of them freed each time */
#define G4_MAX_STACKS (1 << 16)        /* the same */
#define G4_MAX_TEXTS (1 << 20)         /* bytes of items; the same */
#define G4_MAX_STEPS (1 << 18)         /* expressions that steps made; the same */
#define G4_MAX_AHEAD_BYTES (16u << 20) /* the same */
#define G4_MAX_LEXER 4096              /* states with a table of steps each; more are forgotten before a walk */
#define G4_MAX_MASK_BYTES (16u << 20)  /* of masks that are kept */
#define G4_MAX_LIST 4096               /* tokens that are kept as a list; more as a mask */
#define G4_MAX_LIST_BESIDE 64          /* the same, beside a set */
#define G4_MAX_ENDS 65536              /* of tokens that run over the end of one lexeme */
#define G4_FEW_ENDS 16                 /* nodes where a lexeme may end that are kept instead of what is below them */
#define G4_NARROW 8                    /* bytes up to which they are sought one by one */
#define G4_MAX_REACH_LAYER 128         /* states that are looked at with so many characters read, */
#define G4_MAX_REACH 32768             /* and for one expression */
#define G4_REACH_SHARE 4               /* part of what is left of these that one question may take */
#define G4_REACH_ROW 64                /* as many as one that has no table of steps yet counts */
#define G4_FILTERED_A_VISIT 16         /* words that are looked at by their sorts in the time of a visit */
#define G4_REACH_WORTH 128             /* words for which it is found out what stays inside behind a state, */
#define G4_REACH_WORTH_SORTS 256       /* and whether all do that are of the same sorts */
#define G4_N_REACHES 2048              /* answers that are remembered */
#define G4_MAX_WAYS 64                 /* out of a state that are looked at for one set of sorts */
#define G4_MANY_WAYS 3                 /* of them with the same sort: that one is left out */
#define G4_N_SAFE 4                    /* such sets of sorts that are looked for */
#define G4_REACH_ENOUGH 12             /* characters of these that are as good as any number */
#define G4_BEYOND_CHARS 11             /* up to which it is found out what may follow, */
#define G4_MAX_BEYOND 12               /* if that is of few sorts, which many subtrees have not */
#define G4_COSTLY 64                   /* nodes of the vocabulary's trees: what took more to find out is shared */
#define G4_PLAIN_MAX_CHOICES 64        /* alternatives that are looked at */
#define G4_MANY_CHARS 20               /* of two kinds: more texts than a list has items */
#define G4_N_DIVISIONS 128             /* of bytes, that are found again at once */
#define G4_N_UNIONS 1024               /* unions that are remembered */

typedef struct {
    int32_t node;  /* to return to; -1: the text ends */
    g4_re used;    /* items that the rule which returns there has read already; NONE: none, or they may be the same */
    int32_t below; /* the set of stacks below it */
} g4_frame;
typedef struct {
    int32_t first, n; /* frames, by ascending node, then by what is used */
    uint32_t hash;
} g4_stack_set;
#define G4_STACK_BOTTOM 0 /* the set of the stack with nothing on it; always there */

typedef struct {
    int32_t re;    /* what remains of the lexeme; below 0: a control token, negated */
    int32_t to;    /* the node behind it */
    int32_t stack; /* set; of one frame for an item */
    int32_t text;  /* of an item that must differ from others, so far; 0: it is none */
} g4_place;

typedef struct { /* a text as its last byte and the text before that */
    int32_t before;
    uint8_t byte;
} g4_item_text;
#define G4_ITEM_BEGINS 1 /* the empty one */

typedef struct { /* a node of a closure */
    int32_t node, stack;
    int32_t is_queued;
} g4_work;

typedef struct {
    uint32_t epoch;
    int32_t index; /* in the work of the closure */
} g4_closure_mark;

typedef struct { /* tokens: sets, one of one's own among them or none, and a list */
    const uint32_t *sets[2];
    uint32_t *own;
    size_t bytes;
    int n_sets, n_ids;
    uint32_t ids[];
} g4_token_set;

typedef struct {
    int n;
    uint8_t accepts; /* the grammar may end here */
    uint32_t hash;
    g4_token_set *mask; /* cached; NULL: not yet */
    int32_t next[256];  /* state after a byte; -1: not known yet, 0: none */
    g4_place places[];  /* n of them, sorted */
} g4_grammar_state;

typedef struct { /* a lexeme is complete behind so many bytes of words of a tree of the vocabulary */
    uint32_t trie, node, word, depth; /* word: this one, or G4_WORDS_BELOW: all below the children of the node */
} g4_word_end;
#define G4_WORDS_BELOW UINT32_MAX

typedef struct g4_ahead { /* what is ahead within a lexeme */
    g4_finding finding;
    const uint32_t *set; /* tokens that stay inside: this set, which may be `own`; NULL: none */
    uint32_t *own;
    const uint32_t *ids; /* and this list */
    int n_ids;
    int is_wide;           /* too many tokens run over its end to be listed */
    const g4_word_end *at; /* where it may end, if those are few */
    int n_at;
    g4_trie ends; /* else what is left of tokens that run over its end; no nodes: none does */
} g4_ahead;

#define G4_N_PHASES 8
typedef struct {    /* bytes of a character that are of one class */
    g4_sorts sorts; /* of characters that begin with them */
    uint8_t in_class;
    uint8_t phase; /* of the character behind them */
} g4_move;
typedef struct { /* how states tell bytes apart */
    uint8_t class_of[256];
    struct {
        int first, n;     /* n is 0: not made */
    } moves[G4_N_PHASES]; /* by the phase of a character */
} g4_lexer_division;

typedef struct { /* of an expression, as an automaton with a table */
    g4_re re;
    uint32_t seen;            /* by the search with this number, */
    uint8_t seen_phases;      /* in these phases of a character, as bits */
    uint8_t has_reach, reach; /* of plain characters of all sorts, */
    uint8_t ends;             /* on which it may end */
    uint8_t filters;          /* those of safe[0] may come in any number and order, and all others lead out at once; */
    uint8_t may_end;          /* and among them the expression may end */
    uint8_t n_safe[G4_N_SAFE];
    g4_sorts safe[G4_N_SAFE]; /* of these sorts so many stay inside; 0: none */
    g4_sorts out;             /* a character of these may lead out */
    g4_sorts beyond;          /* behind `reach` characters all but these lead out */
    g4_sorts may;             /* characters that lead on are of these */
    uint8_t accepts, has_row, n_live;
    uint8_t goes_on;         /* in a walk: it has a row by bytes, and does not accept */
    uint8_t live[G4_NARROW]; /* bytes that lead on, and where to, when they are few; else n_live is above NARROW, */
    int32_t to[G4_NARROW];
    int division, first; /* and class i of the division leads to targets[first + i]; 0: dead */
    const int32_t *row;  /* (256) the same by bytes, once a walk has come here; NULL: not yet */
} g4_lexer_state;

typedef struct { /* whatever plain characters of these sorts follow, so many of them stay inside */
    int32_t state;
    g4_sorts sorts;
    g4_sorts beyond; /* and one more leads out if it is of these sorts and none of these; all: that is not known */
    uint8_t ends;    /* the expression may end before that */
    uint8_t n_chars; /* G4_ENDLESS: any number */
} g4_reach;
#define G4_ENDLESS UINT8_MAX

typedef struct {
    g4_re re;
    int32_t follow;
    const g4_ahead *ahead;
} g4_ahead_entry;

typedef struct { /* tokens */
    uint32_t *ids;
    int n, cap;
} g4_ids;

typedef struct { /* words of a tree of the vocabulary, by their order in it */
    uint32_t trie, first, end;
} g4_word_range;

typedef struct { /* half-done union of two sets of stacks */
    int32_t a, b, i, j;
    int base;       /* of its frames among those that are collected */
    int is_waiting; /* for the union of what is below frame i of a and j of b */
} g4_union;

typedef struct {
    int32_t a, b, both;
} g4_union_memo;

struct g4_grammar {
    const g4_allocator *a;
    const g4_tokenizer *t;
    g4_vocabulary *vocabulary;
    int owns_vocabulary;
    g4_net net;
    g4_controls controls;
    g4_frame *frames;
    g4_stack_set *stacks;
    int n_frames, cap_frames, n_stacks, cap_stacks;
    g4_hash_table stack_table;
    g4_union *unions;                        /* being made */
    g4_frame *collected;                     /* frames of these */
    int cap_unions, cap_collected, n_unions; /* n: since the byte began */
    g4_union_memo *memo;
    g4_grammar_state **states; /* states[0] is unused: "no state" */
    int n_states, cap_states;
    g4_grammar_state **dead; /* (n_dead): forgotten, and not freed yet */
    int n_dead, cap_dead;
    g4_hash_table state_table;
    size_t mask_bytes;
    g4_work *work;          /* of the closure */
    g4_closure_mark *marks; /* (n_nodes) */
    int32_t *queue;         /* of the closure: places in work */
    g4_item_text *texts;    /* of items that are being read; the first two mean none, and the empty one */
    int n_texts, cap_texts;
    g4_place *core; /* places of the state that it becomes */
    int n_work, cap_work, n_queue, cap_queue, n_core, cap_core;
    uint32_t epoch;
    g4_lexer_state *lexer; /* [0] is unused: dead */
    int n_lexer, cap_lexer;
    g4_hash_table lexer_table;
    g4_lexer_division *divisions;
    g4_move *moves;   /* of these */
    int32_t *targets; /* of the lexer's states */
    int n_divisions, cap_divisions, n_moves, cap_moves, n_targets, cap_targets;
    struct {
        const uint8_t *class_of; /* as it stood among the steps of expressions, where another may stand now */
        int division;
    } last_divisions[G4_N_DIVISIONS];
    g4_hash_table division_table;
    g4_reach *reaches; /* (G4_N_REACHES) by state and sorts; state 0: none */
    uint32_t search;   /* the number of the last one */
    int reach_left;    /* states that may still be looked at for the expression */
    int32_t reach_end; /* at which the last search came to an end */
    g4_ahead_entry *aheads;
    int n_aheads, cap_aheads;
    g4_hash_table ahead_table;
    g4_arena ahead_memory, row_memory; /* row_memory: rows of the lexer's states by bytes */
    size_t ahead_bytes;
    g4_word_range *inside; /* a lexeme, tree by tree in ascending order */
    int n_ranges, cap_ranges;
    const uint32_t *follow; /* (8) bits of bytes that may follow the lexeme, */
    g4_sorts follow_sorts;  /* and the sorts of the characters that begin with them */
    g4_ids allowed;         /* by the mask that is made */
    g4_ids doubtful;        /* which must be read whole to know */
    uint32_t *marked;       /* (n_vocab bits) all 0 between two uses */
    g4_word_end *completions;
    int n_completions, cap_completions;
    g4_word *words;
    int n_words, cap_words;
    uint32_t *written;             /* the mask that was asked for last */
    int32_t n_given;               /* expressions of the network; steps make more */
    int32_t max_given, max_stacks; /* until the next time that what nobody needs is forgotten */
    g4_re plain;                   /* a character that stands in a JSON string as it is; NONE: not made */
    struct {
        g4_re body;
        int is_plain;
    } bodies[16]; /* of repeats: do they hold all plain characters? */
    int n_bodies;
    uint32_t generation; /* counts how often states were forgotten */
    uint64_t n_rows;     /* of the lexer, that were made */
    uint64_t n_visited;  /* nodes of the vocabulary's trees, and of ends */
    uint64_t n_worked;   /* steps of G4_MAX_WORK, without those for the mask or token that is at work */
    int32_t n_counted;   /* expressions that were made, as far as they have been counted as work */
    int64_t work_left;   /* of G4_MAX_WORK, for the mask that is made or the token that is read */
    g4_asker asker;      /* with the halt of the call that is in */
    g4_status failed;    /* since it began: out of memory, halted, too much. What was not completed is not remembered */
    int32_t failed_rule; /* where it was too much; -1: unknown */
    atomic_int busy;     /* a call is in */
};

static void g4_grammar_no_memory(g4_grammar *g)
{
    if (g->failed == G4_OK) g->failed = g4_halted(g->asker.halt) ? G4_ERR_CANCELED : G4_ERR_MEMORY;
}

static void g4_grammar_too_much(g4_grammar *g, int32_t node)
{
    if (g->failed != G4_OK) return;
    g->failed = G4_ERR_UNSUPPORTED;
    g->failed_rule = node >= 0 ? g->net.nodes[node].rule : -1;
}

/* Some more of the work that a mask may take. The node is one of the rule that it is for. */
static inline void g4_grammar_spend(g4_grammar *g, int64_t work, int32_t node)
{
    g->work_left -= work;
    if (g->work_left < 0) g4_grammar_too_much(g, node);
}

/* A mask, or the reading of a token, begins. */
static void g4_grammar_begin_work(g4_grammar *g)
{
    g->n_worked += (uint64_t)(G4_MAX_WORK - g->work_left);
    g->work_left = G4_MAX_WORK;
    g->n_counted = g4_regular_size(g->net.regular);
}

/* Has something failed, or must the call end? */
static inline int g4_grammar_stops(g4_grammar *g)
{
    if (g->failed == G4_OK && g4_ask(&g->asker)) g->failed = G4_ERR_CANCELED;
    return g->failed != G4_OK;
}

/* The same behind steps of expressions, which fail by themselves, and are work too. */
static int g4_grammar_steps_stop(g4_grammar *g, int32_t node)
{
    const g4_net_failure why = g4_regular_failed(g->net.regular);
    const int32_t size = g4_regular_size(g->net.regular);
    g4_grammar_spend(g, (int64_t)G4_MADE_WORK * (size - g->n_counted), node);
    g->n_counted = size;
    if (why == G4_NET_TOO_LARGE)
        g4_grammar_too_much(g, node);
    else if (why != G4_NET_FINE)
        g4_grammar_no_memory(g);
    return g4_grammar_stops(g);
}

/* ---- Growing ------------------------------------------------------------------------------------- */

/* Make room in a table of the grammar for element number n. */
static int g4_grammar_reserve(g4_grammar *g, g4_hash_table *t, int n)
{
    const int has_room = g4_table_reserve(t, g->a, n);
    if (!has_room) g4_grammar_no_memory(g);
    return has_room;
}

/* A growing array of the grammar gets room for one more; NULL: no memory. */
static void *g4_grammar_grow(g4_grammar *g, void *array, int n, int *cap, size_t size)
{
    void *grown = g4_array_grow(g->a, array, n, cap, size);
    if (grown == NULL) g4_grammar_no_memory(g);
    return grown;
}

/* ---- Sets of stacks ------------------------------------------------------------------------------ */

static uint64_t g4_mix_frame(uint64_t h, const g4_frame *f)
{
    return g4_hash_mix(g4_hash_mix(h, (uint64_t)(uint32_t)f->node << 32 | (uint32_t)f->used), (uint32_t)f->below);
}

/* The number of the set of these frames; a new one is made of them. */
static int32_t g4_stack_of(g4_grammar *g, const g4_frame *frames, int n)
{
    uint64_t h = 1;
    for (int i = 0; i < n; i++) h = g4_mix_frame(h, &frames[i]);
    const uint32_t hash = (uint32_t)h;
    uint32_t at = 0;
    if (!g4_grammar_reserve(g, &g->stack_table, g->n_stacks)) return G4_STACK_BOTTOM;
    for (int32_t i; (i = g4_table_next(&g->stack_table, hash, &at)) >= 0;) {
        const g4_stack_set *s = &g->stacks[i];
        if (s->n == n && memcmp(g->frames + s->first, frames, (size_t)n * sizeof *frames) == 0) return i;
    }
    g4_stack_set *stacks = g4_grammar_grow(g, g->stacks, g->n_stacks, &g->cap_stacks, sizeof *stacks);
    if (stacks == NULL) return G4_STACK_BOTTOM;
    g->stacks = stacks;
    const int first = g->n_frames;
    for (int i = 0; i < n; i++) {
        g4_frame *room = g4_grammar_grow(g, g->frames, first + i, &g->cap_frames, sizeof *room);
        if (room == NULL) return G4_STACK_BOTTOM;
        g->frames = room;
        room[first + i] = frames[i];
    }
    g->n_frames = first + n;
    stacks[g->n_stacks] = (g4_stack_set) { first, n, hash };
    g4_table_put(&g->stack_table, hash, g->n_stacks);
    return g->n_stacks++;
}

static g4_union_memo *g4_union_memo_of(g4_grammar *g, int32_t a, int32_t b)
{
    return &g->memo[g4_hash_mix(g4_hash_mix(7, (uint32_t)a), (uint32_t)b) >> 32 & (G4_N_UNIONS - 1)];
}

/* Begin a union, whose frames are collected from `base` on. */
static int g4_union_begin(g4_grammar *g, int *depth, int32_t a, int32_t b, int base)
{
    g4_union *unions = g4_grammar_grow(g, g->unions, *depth, &g->cap_unions, sizeof *unions);
    if (unions == NULL) return 0;
    g->unions = unions;
    unions[(*depth)++] = (g4_union) { .a = a, .b = b, .base = base };
    return ++g->n_unions <= G4_MAX_UNIONS;
}

static void g4_union_collect(g4_grammar *g, int *n, const g4_frame *frame, int32_t below)
{
    const g4_frame kept = { frame->node, frame->used, below };
    g4_frame *collected = g4_grammar_grow(g, g->collected, *n, &g->cap_collected, sizeof *collected);
    if (collected == NULL) return;
    g->collected = collected;
    collected[(*n)++] = kept;
}

static int g4_frame_order(const g4_frame *x, const g4_frame *y)
{
    if (x->node != y->node) return x->node < y->node ? -1 : 1;
    return (x->used > y->used) - (x->used < y->used);
}

/* Go on with the union on top of those being made until it is complete, or another is needed first, which is begun. n:
 * frames collected; below: the union that was waited for. Returns 1 when it is complete. */
static int g4_union_go_on(g4_grammar *g, int *depth, int *n, int32_t below)
{
    g4_union *u = &g->unions[*depth - 1];
    const g4_stack_set a = g->stacks[u->a], b = g->stacks[u->b];
    if (u->is_waiting) {
        g4_union_collect(g, n, &g->frames[a.first + u->i], below);
        u->is_waiting = 0;
        u->i++;
        u->j++;
    }
    while ((u->i < a.n || u->j < b.n) && !g->failed) {
        const g4_frame *x = u->i < a.n ? &g->frames[a.first + u->i] : NULL;
        const g4_frame *y = u->j < b.n ? &g->frames[b.first + u->j] : NULL;
        const int order = x == NULL ? 1 : y == NULL ? -1 : g4_frame_order(x, y);
        if (order == 0 && x->below != y->below) {
            const int32_t low = g4_min_int(x->below, y->below), high = g4_max_int(x->below, y->below);
            const g4_union_memo *known = g4_union_memo_of(g, low, high);
            if (known->a != low || known->b != high) {
                u->is_waiting = 1;
                if (!g4_union_begin(g, depth, low, high, *n)) g4_grammar_too_much(g, x->node);
                return 0;
            }
            g4_union_collect(g, n, x, known->both);
        } else {
            g4_union_collect(g, n, order <= 0 ? x : y, order <= 0 ? x->below : y->below);
        }
        g4_grammar_spend(g, 1, g->frames[order <= 0 ? a.first + u->i : b.first + u->j].node);
        u->i += order <= 0;
        u->j += order >= 0;
    }
    return 1;
}

/* The union of two sets of stacks. Frames with the same node become one, over the union of what is below them. */
static int32_t g4_stack_union(g4_grammar *g, int32_t a, int32_t b)
{
    int depth = 0, n = 0;
    int32_t both = G4_STACK_BOTTOM;
    if (a == b) return a;
    if (!g4_union_begin(g, &depth, g4_min_int(a, b), g4_max_int(a, b), 0)) g4_grammar_too_much(g, -1);
    while (depth > 0 && !g4_grammar_stops(g)) {
        if (!g4_union_go_on(g, &depth, &n, both)) continue;
        const g4_union u = g->unions[--depth];
        both = g4_stack_of(g, g->collected + u.base, n - u.base);
        n = u.base;
        if (!g->failed) *g4_union_memo_of(g, u.a, u.b) = (g4_union_memo) { u.a, u.b, both };
    }
    return both;
}

/* ---- Closures, states ---------------------------------------------------------------------------- */

static void g4_closure_begin(g4_grammar *g)
{
    g->n_work = g->n_queue = g->n_core = g->n_unions = 0;
    if (++g->epoch != 0) return;
    memset(g->marks, 0, (size_t)g->net.n_nodes * sizeof *g->marks);
    g->epoch = 1;
}

static void g4_closure_queue(g4_grammar *g, int32_t index)
{
    int32_t *queue = g4_grammar_grow(g, g->queue, g->n_queue, &g->cap_queue, sizeof *queue);
    if (queue == NULL) return;
    g->queue = queue;
    queue[g->n_queue++] = index;
    g->work[index].is_queued = 1;
}

/* Add a node with its stacks to the closure, or stacks to the node that is there. */
static void g4_closure_add(g4_grammar *g, int32_t node, int32_t stack)
{
    g4_closure_mark *mark = &g->marks[node];
    g4_grammar_spend(g, 1, node);
    if (g4_grammar_stops(g)) return;
    if (mark->epoch == g->epoch) {
        const int32_t both = g4_stack_union(g, g->work[mark->index].stack, stack);
        if (g->failed || both == g->work[mark->index].stack) return;
        g->work[mark->index].stack = both;
        if (!g->work[mark->index].is_queued) g4_closure_queue(g, mark->index);
        return;
    }
    if (g->n_work >= G4_MAX_PLACES) g4_grammar_too_much(g, node);
    g4_work *work = g4_grammar_grow(g, g->work, g->n_work, &g->cap_work, sizeof *work);
    if (work == NULL || g->failed) return;
    g->work = work;
    work[g->n_work] = (g4_work) { .node = node, .stack = stack };
    *mark = (g4_closure_mark) { g->epoch, g->n_work };
    g4_closure_queue(g, g->n_work++);
}

static void g4_closure_add_place(g4_grammar *g, int32_t re, int32_t to, int32_t stack, int32_t text)
{
    if (g->n_core >= G4_MAX_PLACES) g4_grammar_too_much(g, to);
    g4_grammar_spend(g, 1, to);
    g4_place *core = g4_grammar_grow(g, g->core, g->n_core, &g->cap_core, sizeof *core);
    if (core == NULL || g->failed) return;
    g->core = core;
    core[g->n_core++] = (g4_place) { re, to, stack, text };
}

/* Follow what leads on from a node without reading: empty edges, calls, the return at a rule's end. Returns whether the
 * text may end. */
static int g4_closure_follow(g4_grammar *g, int32_t node, int32_t stack)
{
    const g4_net *net = &g->net;
    int accepts = 0;
    if (net->nodes[node].is_end)
        for (int i = 0; i < g->stacks[stack].n && !g->failed; i++) {
            const g4_frame f = g->frames[g->stacks[stack].first + i];
            if (f.node < 0)
                accepts = 1;
            else
                g4_closure_add(g, f.node, f.below);
        }
    for (int32_t e = net->nodes[node].first; e >= 0 && !g->failed; e = net->edges[e].next) {
        const g4_edge *edge = &net->edges[e];
        if (edge->kind == G4_EDGE_EMPTY) {
            g4_closure_add(g, edge->to, stack);
        } else if (edge->kind == G4_EDGE_CALL) { /* a call at the very end of a rule needs no way back */
            const int is_tail =
                net->nodes[edge->to].is_end && net->nodes[edge->to].first < 0 && !net->rules[edge->operand].has_items;
            const g4_frame frame = { edge->to, G4_RE_NONE, stack };
            const int32_t called = is_tail ? stack : g4_stack_of(g, &frame, 1);
            if (!g->failed) g4_closure_add(g, net->rules[edge->operand].start, called);
        }
    }
    return accepts;
}

static int g4_place_compare(const void *pa, const void *pb)
{
    const g4_place *a = pa, *b = pb;
    if (a->re != b->re) return a->re < b->re ? -1 : 1;
    if (a->to != b->to) return a->to < b->to ? -1 : 1;
    if (a->text != b->text) return a->text < b->text ? -1 : 1;
    return (a->stack > b->stack) - (a->stack < b->stack);
}

/* Sort the places of the closure, and make one of those that differ in their stacks only. */
static void g4_closure_settle(g4_grammar *g)
{
    int n = 0;
    if (g->n_core > 1 && !g4_sort(g->a, g->core, (size_t)g->n_core, sizeof *g->core, g4_place_compare, g->asker.halt)) {
        g4_grammar_no_memory(g);
        return;
    }
    for (int i = 0; i < g->n_core && !g->failed; i++) {
        const g4_place p = g->core[i];
        g4_place *last = n > 0 ? &g->core[n - 1] : NULL;
        if (last == NULL || last->re != p.re || last->to != p.to || (p.text != 0 && g4_place_compare(last, &p) != 0))
            g->core[n++] = p;
        else if (p.text == 0)
            last->stack = g4_stack_union(g, last->stack, p.stack);
    }
    g->n_core = n;
}

/* The number of the state that has these places; -1: there is none yet. */
static int32_t g4_state_find(const g4_grammar *g, const g4_grammar_state *like, const g4_place *places)
{
    uint32_t at = 0;
    for (int32_t i; (i = g4_table_next(&g->state_table, like->hash, &at)) >= 0;) {
        const g4_grammar_state *s = g->states[i];
        if (s->n == like->n && s->accepts == like->accepts &&
            (s->n == 0 || memcmp(s->places, places, (size_t)s->n * sizeof *places) == 0))
            return i;
    }
    return -1;
}

static uint32_t g4_state_hash(const g4_place *places, int n, int accepts)
{
    uint64_t h = g4_hash_mix(3, (uint64_t)accepts);
    for (int i = 0; i < n; i++) {
        const g4_place *p = &places[i];
        h = g4_hash_mix(h, (uint64_t)(uint32_t)p->re << 32 | (uint32_t)p->to);
        h = g4_hash_mix(h, (uint64_t)(uint32_t)p->stack << 32 | (uint32_t)p->text);
    }
    return (uint32_t)(h >> 16);
}

/* The number of the state of the places that the closure has; a new one is made of them. */
static int32_t g4_state_of(g4_grammar *g, int accepts)
{
    const int n = g->n_core;
    const g4_grammar_state head = { .n = n, .accepts = (uint8_t)accepts, .hash = g4_state_hash(g->core, n, accepts) };
    if (!g4_grammar_reserve(g, &g->state_table, g->n_states)) return 0;
    const int32_t known = g4_state_find(g, &head, g->core);
    if (known >= 0) return known;
    g4_grammar_state **states = g4_grammar_grow(g, g->states, g->n_states, &g->cap_states, sizeof *states);
    if (states == NULL) return 0;
    g->states = states;
    g4_grammar_state *s = g4_alloc(g->a, 1, sizeof *s + (size_t)n * sizeof *g->core);
    if (s == NULL) {
        g4_grammar_no_memory(g);
        return 0;
    }
    *s = head;
    memset(s->next, -1, sizeof s->next);
    if (n > 0) memcpy(s->places, g->core, (size_t)n * sizeof *g->core);
    states[g->n_states] = s;
    g4_table_put(&g->state_table, s->hash, g->n_states);
    return g->n_states++;
}

/* An item begins: for each frame, of what it has not read yet. */
static void g4_closure_add_items(g4_grammar *g, const g4_edge *edge, int32_t stack)
{
    g4_regular *r = g->net.regular;
    for (int i = 0; i < g->stacks[stack].n && !g->failed; i++) {
        const g4_frame f = g->frames[g->stacks[stack].first + i];
        const g4_re item = f.used == G4_RE_NONE ? edge->operand : g4_re_and(r, edge->operand, g4_re_not(r, f.used));
        const int is_none = g4_re_is_none(r, item) == 1;
        const g4_re all = g4_re_concat(r, edge->before, item);
        if (g4_grammar_steps_stop(g, edge->to)) return;
        if (!is_none) g4_closure_add_place(g, all, edge->to, g4_stack_of(g, &f, 1), G4_ITEM_BEGINS);
    }
}

/* An item goes on with a byte: its text so far. */
static int32_t g4_item_go_on(g4_grammar *g, int32_t before, int byte)
{
    g4_item_text *texts = g4_grammar_grow(g, g->texts, g->n_texts, &g->cap_texts, sizeof *texts);
    if (texts == NULL) return 0;
    g->texts = texts;
    texts[g->n_texts] = (g4_item_text) { before, (uint8_t)byte };
    return g->n_texts++;
}

/* An item is complete: the stack on which it counts as used. */
static int32_t g4_item_end(g4_grammar *g, int32_t stack, int32_t text)
{
    g4_regular *r = g->net.regular;
    g4_frame f = g->frames[g->stacks[stack].first];
    size_t n = 0;
    for (int32_t k = text; k > G4_ITEM_BEGINS; k = g->texts[k].before) n++;
    char *s = g4_alloc(g->a, n + 1, 1);
    if (s == NULL) {
        g4_grammar_no_memory(g);
        return stack;
    }
    for (int32_t k = text, i = 1; k > G4_ITEM_BEGINS; k = g->texts[k].before, i++)
        s[n - (size_t)i] = (char)g->texts[k].byte;
    const g4_re same = g->net.same_item != NULL ? g->net.same_item(r, s, n) : g4_re_text(r, s, n);
    g4_free(g->a, s);
    f.used = f.used == G4_RE_NONE ? same : g4_re_or(r, f.used, same);
    return g4_grammar_steps_stop(g, -1) ? stack : g4_stack_of(g, &f, 1);
}

/* Complete the closure and number it. 0: there is nothing, or something failed. */
static int32_t g4_closure_end(g4_grammar *g)
{
    const g4_net *net = &g->net;
    int accepts = 0;
    for (int i = 0; i < g->n_queue && !g4_grammar_stops(g); i++) {
        g4_work *w = &g->work[g->queue[i]];
        w->is_queued = 0;
        accepts |= g4_closure_follow(g, w->node, w->stack);
    }
    for (int i = 0; i < g->n_work && !g->failed; i++)
        for (int32_t e = net->nodes[g->work[i].node].first; e >= 0; e = net->edges[e].next) {
            const g4_edge *edge = &net->edges[e];
            const int32_t stack = g->work[i].stack;
            if (edge->kind == G4_EDGE_LEXEME) g4_closure_add_place(g, edge->operand, edge->to, stack, 0);
            if (edge->kind == G4_EDGE_CONTROL) g4_closure_add_place(g, -edge->operand, edge->to, stack, 0);
            if (edge->kind == G4_EDGE_ITEM) g4_closure_add_items(g, edge, stack);
        }
    if (!g->failed) g4_closure_settle(g);
    return g->failed || (g->n_core == 0 && !accepts) ? 0 : g4_state_of(g, accepts);
}

/* The state after a byte, or after a control token when control is not NONE. 0: it does not fit. The end of an item
 * fits, as masks have it, which do not know its value: where nothing is left to follow it, the state is an end without
 * a way on. */
static int32_t g4_grammar_step_slow(g4_grammar *g, int32_t state, int byte, g4_control control)
{
    const g4_grammar_state *s = g->states[state];
    int ends_item = 0;
    g4_closure_begin(g);
    for (int i = 0; i < s->n && !g4_grammar_stops(g); i++) {
        const g4_place p = s->places[i];
        g4_grammar_spend(g, 1, p.to);
        if (control != G4_CONTROL_NONE || p.re < 0) {
            if (control != G4_CONTROL_NONE && p.re == -(int32_t)control) g4_closure_add(g, p.to, p.stack);
            continue;
        }
        const g4_re rest = g4_re_step(g->net.regular, p.re, byte);
        if (g4_grammar_steps_stop(g, p.to)) break;
        if (rest == G4_RE_NONE) continue;
        const int32_t text = p.text != 0 ? g4_item_go_on(g, p.text, byte) : 0;
        const int accepts = g4_re_accepts(g->net.regular, rest);
        ends_item |= accepts && text != 0;
        if (rest != G4_RE_EMPTY) g4_closure_add_place(g, rest, p.to, p.stack, text);
        if (accepts && !g->failed) g4_closure_add(g, p.to, text != 0 ? g4_item_end(g, p.stack, text) : p.stack);
    }
    if (g->failed) return 0;
    const int32_t next = g4_closure_end(g);
    return next == 0 && ends_item && !g->failed ? g4_state_of(g, 0) : next;
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

/* The state behind a token; 0: it does not fit. */
static int32_t g4_grammar_step_token(g4_grammar *g, int32_t state, g4_token token)
{
    uint32_t n;
    if (state == 0 || token < 0 || (uint32_t)token >= g->t->n_vocab) return 0;
    const uint8_t *text = g4_tokenizer_text(g->t, (uint32_t)token, &n);
    if (n == 0) {
        const g4_control control = g4_controls_find(&g->controls, token);
        return control != G4_CONTROL_NONE ? g4_grammar_step_slow(g, state, 0, control) : 0;
    }
    for (uint32_t i = 0; i < n && state != 0; i++) state = g4_grammar_step(g, state, text[i]);
    return state;
}

/* ---- Lexemes as automata ------------------------------------------------------------------------- */

/* The number of the state of an expression; 0: it has no text, or something failed. */
static int32_t g4_lexer_of(g4_grammar *g, g4_re re)
{
    const uint32_t hash = (uint32_t)re * 0x9e3779b1u;
    uint32_t at = 0;
    if (re == G4_RE_NONE || !g4_grammar_reserve(g, &g->lexer_table, g->n_lexer)) return 0;
    for (int32_t i; (i = g4_table_next(&g->lexer_table, hash, &at)) >= 0;)
        if (g->lexer[i].re == re) return i;
    g4_lexer_state *lexer = g4_grammar_grow(g, g->lexer, g->n_lexer, &g->cap_lexer, sizeof *lexer);
    if (lexer == NULL) return 0;
    g->lexer = lexer;
    lexer[g->n_lexer].re = re;
    lexer[g->n_lexer].has_row = lexer[g->n_lexer].goes_on = 0;
    lexer[g->n_lexer].row = NULL;
    lexer[g->n_lexer].seen = 0;
    lexer[g->n_lexer].has_reach = lexer[g->n_lexer].reach = 0;
    lexer[g->n_lexer].ends = lexer[g->n_lexer].filters = 0;
    lexer[g->n_lexer].safe[0] = 0;
    lexer[g->n_lexer].beyond = G4_ALL_SORTS;
    lexer[g->n_lexer].accepts = (uint8_t)g4_re_accepts(g->net.regular, re);
    g4_table_put(&g->lexer_table, hash, g->n_lexer);
    return g->n_lexer++;
}

/* An expression that begins with one of few bytes, whichever it is, needs no table. */
static int g4_lexer_make_narrow(g4_grammar *g, int32_t state)
{
    const uint32_t *bytes;
    g4_re rest;
    uint8_t live[G4_NARROW];
    int n = 0;
    if (!g4_re_is_byte(g->net.regular, g->lexer[state].re, &bytes, &rest)) return 0;
    for (int i = 0; i < 8; i++)
        for (uint32_t bits = bytes[i], b = 0; bits != 0; bits >>= 1, b++) {
            if (!(bits & 1)) continue;
            if (n == G4_NARROW) return 0;
            live[n++] = (uint8_t)((uint32_t)i * 32 + b);
        }
    const int32_t next = g4_lexer_of(g, rest);
    g4_lexer_state *s = &g->lexer[state];
    s->may = 0;
    for (int i = 0; i < n; i++) {
        s->live[i] = live[i];
        s->to[i] = next;
        s->may |= g->vocabulary->sort_of[live[i]];
    }
    s->n_live = (uint8_t)n;
    s->has_row = !g->failed;
    return 1;
}

static int g4_lexer_new_division(g4_grammar *g, const g4_re_view *v, uint32_t hash)
{
    if (!g4_grammar_reserve(g, &g->division_table, g->n_divisions)) return -1;
    g4_lexer_division *divisions =
        g4_grammar_grow(g, g->divisions, g->n_divisions, &g->cap_divisions, sizeof *divisions);
    if (divisions == NULL) return -1;
    g->divisions = divisions;
    memcpy(divisions[g->n_divisions].class_of, v->class_of, 256);
    memset(divisions[g->n_divisions].moves, 0, sizeof divisions->moves);
    g4_table_put(&g->division_table, hash, g->n_divisions);
    return g->n_divisions++;
}

/* The number of a division, which is copied; -1: no memory. */
static int g4_lexer_divide(g4_grammar *g, const g4_re_view *v)
{
    const uint32_t slot = (uint32_t)(g4_hash_mix(1, (uintptr_t)v->class_of) >> 32) & (G4_N_DIVISIONS - 1);
    const int known = g->last_divisions[slot].division;
    if (g->last_divisions[slot].class_of == v->class_of && memcmp(g->divisions[known].class_of, v->class_of, 256) == 0)
        return known;
    const uint32_t hash = g4_hash_bytes((const char *)v->class_of, 256);
    uint32_t at = 0;
    int32_t i = g4_table_next(&g->division_table, hash, &at);
    while (i >= 0 && memcmp(g->divisions[i].class_of, v->class_of, 256) != 0)
        i = g4_table_next(&g->division_table, hash, &at);
    if (i < 0) i = g4_lexer_new_division(g, v, hash);
    if (i < 0) return -1;
    g->last_divisions[slot].class_of = v->class_of;
    g->last_divisions[slot].division = i;
    return i;
}

/* Put down where the classes of a division lead to; returns the place among the targets, or -1: no memory. */
static int g4_lexer_put_targets(g4_grammar *g, const int32_t *to, int n)
{
    const int first = g->n_targets;
    for (int i = 0; i < n; i++) {
        int32_t *targets = g4_grammar_grow(g, g->targets, g->n_targets, &g->cap_targets, sizeof *targets);
        if (targets == NULL) return -1;
        g->targets = targets;
        targets[g->n_targets++] = to[i];
    }
    return first;
}

static void g4_lexer_make_row(g4_grammar *g, int32_t state)
{
    int32_t to[256], live_to[G4_NARROW + 1] = { 0 };
    uint8_t live[G4_NARROW + 1] = { 0 };
    g4_sorts may = 0;
    int n_live = 0;
    if (g4_lexer_make_narrow(g, state)) return;
    g4_grammar_spend(g, G4_ROW_WORK, -1);
    const g4_re_view v = g4_re_steps_of(g->net.regular, g->lexer[state].re);
    if (g4_grammar_steps_stop(g, -1)) return;
    for (int i = 0; i < v.n; i++) to[i] = g4_lexer_of(g, v.to[i]);
    if (g->failed) return;
    for (int b = 0; b < 256; b++) { /* without branches, which nothing would foretell */
        const int32_t next = to[v.class_of[b]];
        const int at = g4_min_int(n_live, G4_NARROW);
        may |= next != 0 ? g->vocabulary->sort_of[b] : 0;
        live[at] = (uint8_t)b;
        live_to[at] = next;
        n_live += next != 0;
    }
    g4_lexer_state *s = &g->lexer[state];
    s->may = may;
    memcpy(s->live, live, sizeof s->live);
    memcpy(s->to, live_to, sizeof s->to);
    if (n_live > G4_NARROW) {
        s->division = g4_lexer_divide(g, &v);
        s->first = g4_lexer_put_targets(g, to, v.n);
        if (g->failed) return;
    }
    s->n_live = (uint8_t)g4_min_int(n_live, 255);
    s->has_row = 1;
    g->n_rows++;
}

/* Make a state ready for a walk, which reads many bytes from it. */
static void g4_lexer_open_row(g4_grammar *g, int32_t state)
{
    if (!g->lexer[state].has_row) g4_lexer_make_row(g, state);
    int32_t *row = g->failed ? NULL : g4_arena_alloc(&g->row_memory, 256 * sizeof *row);
    if (row == NULL) {
        g4_grammar_no_memory(g);
        return;
    }
    g4_lexer_state *s = &g->lexer[state];
    const uint8_t *class_of = s->n_live > G4_NARROW ? g->divisions[s->division].class_of : NULL;
    for (int b = 0; b < 256 && class_of != NULL; b++) row[b] = g->targets[s->first + class_of[b]];
    for (int i = 0; i < s->n_live && class_of == NULL; i++) row[s->live[i]] = s->to[i];
    s->row = row;
    s->goes_on = !s->accepts;
}

/* The state of an expression, with its row; 0: something failed, or it has no text. */
static int32_t g4_lexer_open(g4_grammar *g, g4_re re)
{
    const int32_t state = g4_lexer_of(g, re);
    if (state != 0 && g->lexer[state].row == NULL) g4_lexer_open_row(g, state);
    return g->failed ? 0 : state;
}

static inline int32_t g4_lexer_to(const g4_grammar *g, const g4_lexer_state *s, uint8_t byte)
{
    if (s->n_live > G4_NARROW) return g->targets[s->first + g->divisions[s->division].class_of[byte]];
    for (int i = 0; i < s->n_live; i++)
        if (s->live[i] == byte) return s->to[i];
    return 0;
}

static void g4_lexer_forget(g4_grammar *g)
{
    g->n_lexer = 1;
    g4_arena_free(&g->row_memory);
    g->row_memory = (g4_arena) { .a = g->a };
    g->n_divisions = g->n_moves = g->n_targets = 0;
    memset(g->last_divisions, 0, sizeof g->last_divisions);
    g4_table_clear(&g->division_table);
    g4_table_clear(&g->lexer_table);
    memset(g->reaches, 0, G4_N_REACHES * sizeof *g->reaches);
}

/* ---- How far plain characters reach -------------------------------------------------------------- *
 *
 * Most of what tokens are made of is all alike to an expression, or leads out of it only behind several characters of
 * a certain kind. A walk through the vocabulary need not go into a subtree when whatever its tokens may be made of
 * stays inside. */

/* What a character goes on with, by phase: bytes from low to high, and the phase behind them. 0: it is complete. */
static const struct {
    uint8_t low, high, then;
} g4_char_phases[G4_N_PHASES] = { { 0, 0, 0 },
                                  { 0x80, 0xbf, 0 },
                                  { 0x80, 0xbf, 1 },
                                  { 0x80, 0xbf, 2 },
                                  { 0xa0, 0xbf, 1 } /* E0 */,
                                  { 0x80, 0x9f, 1 } /* ED */,
                                  { 0x90, 0xbf, 2 } /* F0 */,
                                  { 0x80, 0x8f, 2 } /* F4 */ };

static uint8_t g4_char_phase(uint8_t first)
{
    if (first < 0x80) return 0;
    if (first < 0xe0) return 1;
    if (first < 0xf0) return first == 0xe0 ? 4 : first == 0xed ? 5 : 2;
    return first == 0xf0 ? 6 : first == 0xf4 ? 7 : 3;
}

typedef struct { /* a state to look at, in its phase of a character, and the sorts on the way to it */
    int32_t state;
    g4_sorts way;
    uint8_t phase;
} g4_reach_place;
typedef struct {
    g4_reach_place places[G4_MAX_REACH_LAYER];
    int n;
} g4_reach_layer;

static inline int g4_reach_has_seen(const g4_grammar *g, int32_t state, uint8_t phase)
{
    const g4_lexer_state *s = &g->lexer[state];
    return s->seen == g->search && (s->seen_phases >> phase & 1);
}

/* Put a state on a layer if it was on none yet. Returns 0 when there is no room. */
static int g4_reach_add(g4_grammar *g, g4_reach_layer *layer, g4_reach_place place)
{
    g4_lexer_state *s = &g->lexer[place.state];
    if (g4_reach_has_seen(g, place.state, place.phase)) return 1;
    if (s->seen != g->search) {
        s->seen = g->search;
        s->seen_phases = 0;
    }
    if (layer->n == G4_MAX_REACH_LAYER) return 0;
    s->seen_phases |= (uint8_t)(1 << place.phase);
    layer->places[layer->n++] = place;
    return 1;
}

/* Make the moves of a division. In phase 0 a plain character begins. */
static void g4_moves_make(g4_grammar *g, int division, int phase)
{
    const int low = phase == 0 ? 0x20 : g4_char_phases[phase].low;
    const int high = phase == 0 ? 0xf4 : g4_char_phases[phase].high;
    const int first = g->n_moves;
    for (int b = low; b <= high; b++) {
        const g4_sorts sort = g->vocabulary->sort_of[b];
        if (phase == 0 && sort == 0) continue;
        const g4_move m = { sort, g->divisions[division].class_of[b],
                            phase == 0 ? g4_char_phase((uint8_t)b) : g4_char_phases[phase].then };
        int i = g->n_moves; /* most often it is the one of the byte before */
        while (i > first && (g->moves[i - 1].in_class != m.in_class || g->moves[i - 1].phase != m.phase)) i--;
        if (i > first) {
            g->moves[i - 1].sorts |= sort;
            continue;
        }
        g4_move *moves = g4_grammar_grow(g, g->moves, g->n_moves, &g->cap_moves, sizeof *moves);
        if (moves == NULL) return;
        g->moves = moves;
        moves[g->n_moves++] = m;
    }
    g->divisions[division].moves[phase].first = first;
    g->divisions[division].moves[phase].n = g->n_moves - first;
}

/* The rarest of some sorts: the highest bit. */
static g4_sorts g4_reach_rarest(g4_sorts sorts)
{
    for (int shift = 1; shift < 64; shift *= 2) sorts |= sorts >> shift;
    return sorts ^ sorts >> 1;
}

/* Go on with bytes of a character that lead to a state. Returns 0 when that leads out, with the sorts on the way in
 * *way, or when there is no room. */
static inline int g4_reach_put(g4_grammar *g, g4_reach_place to, g4_reach_layer *same, g4_reach_layer *next,
                               g4_sorts *way)
{
    if (to.state != 0) return g4_reach_add(g, to.phase == 0 ? next : same, to);
    *way = to.way;
    return 0;
}

/* Go on from a place whose state leads on with few bytes: fewer than any that go on with a character. */
static int g4_reach_go_on_narrow(g4_grammar *g, g4_sorts sorts, g4_reach_place from, g4_reach_layer *same,
                                 g4_reach_layer *next, g4_sorts *way)
{
    const g4_sorts out = from.phase == 0 ? sorts & ~g->lexer[from.state].may : 0;
    *way = from.way | g4_reach_rarest(out);
    if (from.phase != 0 || out != 0) return 0;
    for (int b = 0x20; b <= 0xf4; b++) {
        const g4_sorts sort = g->vocabulary->sort_of[b] & sorts;
        const g4_reach_place to = { g4_lexer_to(g, &g->lexer[from.state], (uint8_t)b), from.way | sort,
                                    g4_char_phase((uint8_t)b) };
        if (sort != 0 && !g4_reach_put(g, to, same, next, way)) return 0;
    }
    return 1;
}

/* Go on from a place of the layer, within its character or into the next layer. Returns 0 when a byte leads out, with
 * the sorts on the way in *way, or when there is no room. */
static int g4_reach_go_on(g4_grammar *g, g4_sorts sorts, g4_reach_place from, g4_reach_layer *same,
                          g4_reach_layer *next, g4_sorts *way)
{
    g->reach_left -= g->lexer[from.state].has_row ? 1 : G4_REACH_ROW;
    if (g->reach_left < 0) return 0;
    if (!g->lexer[from.state].has_row) g4_lexer_make_row(g, from.state);
    if (g->failed) return 0;
    const g4_lexer_state *s = &g->lexer[from.state];
    if (s->n_live <= G4_NARROW) return g4_reach_go_on_narrow(g, sorts, from, same, next, way);
    if (g->divisions[s->division].moves[from.phase].n == 0) g4_moves_make(g, s->division, from.phase);
    const g4_move *m = g->moves + g->divisions[s->division].moves[from.phase].first;
    const g4_move *end = m + g->divisions[s->division].moves[from.phase].n;
    for (const int32_t *targets = g->targets + s->first; m < end; m++) {
        const int32_t to = targets[m->in_class];
        const g4_sorts by = from.phase == 0 ? m->sorts & sorts : 0;
        if ((from.phase == 0 && by == 0) || (to != 0 && g4_reach_has_seen(g, to, m->phase))) continue;
        const g4_reach_place place = { to, from.way | g4_reach_rarest(by), m->phase };
        if (!g4_reach_put(g, place, same, next, way)) return 0;
    }
    return !g->failed;
}

/* Take all states as not seen. */
static void g4_reach_unsee(g4_grammar *g)
{
    if (++g->search != 0) return;
    for (int i = 1; i < g->n_lexer; i++) g->lexer[i].seen = 0; /* the marks of 2^32 searches ago */
    g->search = 1;
}

/* Begin a search, with a state on its first layer. */
static void g4_reach_begin(g4_grammar *g, int32_t state, g4_reach_layer *layer)
{
    g4_reach_unsee(g);
    layer->n = 0;
    g4_reach_add(g, layer, (g4_reach_place) { .state = state });
}

/* How many plain characters of these sorts, whatever they are, stay inside behind a state; less when that is costly.
 * *way: the sorts of what leads out; 0: none does, or that is not known. */
static uint8_t g4_reach_find(g4_grammar *g, int32_t state, g4_sorts sorts, g4_sorts *way)
{
    g4_reach_layer layers[2];
    int n_chars = 0;
    *way = 0;
    g4_reach_begin(g, state, &layers[0]);
    for (; layers[n_chars & 1].n > 0; n_chars++) {
        g4_reach_layer *layer = &layers[n_chars & 1], *next = &layers[~n_chars & 1];
        if (n_chars == G4_REACH_ENOUGH) return G4_REACH_ENOUGH;
        next->n = 0;
        while (layer->n > 0) {
            g->reach_end = layer->places[--layer->n].state;
            if (!g4_reach_go_on(g, sorts, layer->places[layer->n], layer, next, way)) return (uint8_t)n_chars;
        }
    }
    return G4_ENDLESS;
}

static int g4_count_bits(g4_sorts bits)
{
    int n = 0;
    for (; bits != 0; bits &= bits - 1) n++;
    return n;
}

/* Behind so many characters of these sorts, which stay inside, as was just found, the sorts of those that may follow;
 * where that is costly, all. *ends: whether the expression may end on the way. */
static g4_sorts g4_reach_beyond(g4_grammar *g, int32_t state, g4_sorts sorts, int n_chars, uint8_t *ends)
{
    const g4_lexer_state *last = &g->lexer[g->reach_end];
    g4_reach_layer layers[2];
    g4_sorts way, may = n_chars <= G4_BEYOND_CHARS && last->has_row ? last->may : G4_ALL_SORTS;
    *ends = 0;
    g4_reach_begin(g, state, &layers[0]);
    for (int i = 0; i <= n_chars; i++) {
        g4_reach_layer *layer = &layers[i & 1], *next = &layers[~i & 1];
        next->n = 0;
        g4_reach_unsee(g); /* a state may be on several layers */
        while (layer->n > 0) {
            const g4_reach_place at = layer->places[--layer->n];
            *ends |= g->lexer[at.state].accepts;
            if (g4_count_bits(may) > G4_MAX_BEYOND) return G4_ALL_SORTS;
            if (i == n_chars && !g->lexer[at.state].has_row) g4_lexer_make_row(g, at.state);
            if (i == n_chars && !g->failed)
                may |= g->lexer[at.state].may;
            else if (!g4_reach_go_on(g, sorts, at, layer, next, &way))
                return G4_ALL_SORTS;
        }
    }
    return may;
}

/* The same with a share of what may still be looked at. */
static uint8_t g4_reach_try(g4_grammar *g, int32_t state, g4_sorts sorts, g4_sorts *way)
{
    const int others = g->reach_left - g->reach_left / G4_REACH_SHARE;
    g->reach_left -= others;
    const uint8_t n_chars = g4_reach_find(g, state, sorts, way);
    g->reach_left += others;
    return n_chars;
}

/* The sorts of which a character may lead out by its first byte. */
static g4_sorts g4_reach_out(const g4_grammar *g, const g4_lexer_state *s)
{
    g4_sorts out = 0;
    for (int b = 0x20; b < 256; b++)
        if (g->vocabulary->sort_of[b] & ~out && g4_lexer_to(g, s, (uint8_t)b) == 0) out |= g->vocabulary->sort_of[b];
    return out;
}

/* The rarest but i of some sorts, or the commonest. */
static g4_sorts g4_reach_rare(g4_sorts sorts, int i)
{
    for (; i > 0 && (sorts & (sorts - 1)) != 0; i--) sorts &= ~g4_reach_rarest(sorts);
    return g4_reach_rarest(sorts);
}

/* The state behind one character of these sorts, whichever it is; 0: that may be several, or none. */
static int32_t g4_reach_once(g4_grammar *g, int32_t state, g4_sorts sorts)
{
    g4_reach_layer same, next;
    g4_sorts way;
    next.n = 0;
    g4_reach_begin(g, state, &same);
    while (same.n > 0)
        if (!g4_reach_go_on(g, sorts, same.places[--same.n], &same, &next, &way)) return 0;
    return next.n == 0 ? state : next.n == 1 ? next.places[0].state : 0;
}

/* The sorts, none of those in `out`, whose characters all lead to the same state; of several such sets the largest. */
static g4_sorts g4_reach_alike(g4_grammar *g, int32_t state, g4_sorts out)
{
    int32_t behind[64];
    g4_sorts alike = 0;
    int n_alike = 0;
    for (int i = 0; i < 64; i++) {
        g4_sorts same = 0;
        int n = 0;
        behind[i] = out >> i & 1 ? 0 : g4_reach_once(g, state, (g4_sorts)1 << i);
        for (int k = 0; k <= i && behind[i] != 0; k++) {
            if (behind[k] != behind[i]) continue;
            same |= (g4_sorts)1 << k;
            n++;
        }
        if (n <= n_alike) continue;
        alike = same;
        n_alike = n;
    }
    return alike;
}

typedef struct { /* sorts that lead out together, and one of them that is left out; 0: so is another */
    g4_sorts sorts, without;
} g4_way;
typedef struct {
    g4_way ways[G4_MAX_WAYS];
    int n, max;
    uint8_t count[64]; /* of the ways, by sort: at most `max` */
} g4_ways;

/* One more way. Of its sorts the rarest but i is left out; by count it is one that most ways have, which makes up for
 * what was left out for others of these. Returns all sorts that are left out. */
static g4_sorts g4_ways_add(g4_ways *w, g4_sorts way, int i, int by_count)
{
    g4_sorts most = 0, without = 0;
    int max = 0;
    for (g4_sorts left = way; left != 0; left &= left - 1) {
        const g4_sorts sort = left & (~left + 1);
        const int n = ++w->count[g4_count_bits(sort - 1)];
        most = n > max ? sort : n == max ? most | sort : most;
        max = g4_max_int(max, n);
    }
    w->max = g4_max_int(w->max, max);
    most = g4_reach_rare(by_count ? most : way, i);
    for (int k = 0; k < w->n; k++) {
        if (by_count && (w->ways[k].sorts & most) != 0) w->ways[k].without = 0;
        without |= w->ways[k].without;
    }
    w->ways[w->n++] = (g4_way) { way, most };
    return without | most;
}

/* Put down as safe set number i of a state these sorts, without as many of them as lead out before enough characters
 * stay inside. Of those that lead out together it is enough to leave one out, the rarer the better, unless many ways
 * out have one in common and no other set is tried. Where a text is nearly full, leaving sorts out does not help: of
 * the sets on the way, the one with the most sorts and characters is taken. first: sorts that are known to lead out
 * together, or 0. Returns 0 when that is too costly. */
static int g4_reach_learn_safe(g4_grammar *g, int32_t state, int i, g4_sorts all, g4_sorts first, int by_count)
{
    g4_ways ways = { .n = 0 };
    g4_sorts way = 1, best = 0, sorts = first != 0 ? all & ~g4_ways_add(&ways, first, i, by_count) : all;
    int most = 0, n_chars = 0;
    while (way != 0 && ways.n < G4_MAX_WAYS && n_chars < G4_REACH_ENOUGH && !g->failed) {
        n_chars = g4_reach_try(g, state, sorts, &way);
        const int worth = g4_count_bits(sorts) * g4_min_int(n_chars, G4_REACH_ENOUGH);
        if (worth > most) {
            most = worth;
            best = sorts;
            g->lexer[state].n_safe[i] = (uint8_t)n_chars;
        }
        if (way != 0) sorts = all & ~g4_ways_add(&ways, way, i, by_count);
        if (!by_count && first == 0 && ways.max > G4_MANY_WAYS) return g4_reach_learn_safe(g, state, i, all, first, 1);
    }
    g->lexer[state].safe[i] = best;
    return most > 0 && (way != 0 || n_chars >= G4_REACH_ENOUGH);
}

/* Does a state lead out with every byte that begins characters of other sorts? */
static int g4_reach_has_only(const g4_grammar *g, int32_t state, g4_sorts sorts)
{
    for (int b = 0x20; b < 256; b++)
        if ((g->vocabulary->sort_of[b] & ~sorts) != 0 && g4_lexer_to(g, &g->lexer[state], (uint8_t)b) != 0) return 0;
    return 1;
}

/* Find out whether a state allows characters by their sorts alone, wherever they stand. */
static void g4_reach_learn_filter(g4_grammar *g, int32_t state)
{
    const g4_sorts safe = g->lexer[state].safe[0];
    g4_reach_layer layers[2];
    g4_sorts way;
    int is_filter = safe != 0 && g->lexer[state].n_safe[0] == G4_ENDLESS, may_end = 0;
    if (is_filter) g4_reach_begin(g, state, &layers[0]);
    for (int i = 0; is_filter && layers[i & 1].n > 0; i++) {
        g4_reach_layer *layer = &layers[i & 1], *next = &layers[~i & 1];
        next->n = 0;
        while (is_filter && layer->n > 0) {
            const g4_reach_place at = layer->places[--layer->n];
            is_filter = g4_reach_go_on(g, safe, at, layer, next, &way) &&
                        (at.phase != 0 || g4_reach_has_only(g, at.state, safe));
            may_end |= g->lexer[at.state].accepts;
        }
    }
    g->lexer[state].filters = (uint8_t)is_filter;
    g->lexer[state].may_end = (uint8_t)may_end;
}

/* Find out what stays inside behind a state: so many characters of all sorts, and many of some. When characters of all
 * sorts lead to too many states, as they do where words are counted, it is found out about those that lead to the same
 * one. */
static void g4_reach_learn(g4_grammar *g, int32_t state)
{
    g4_sorts first;
    const uint8_t reach = g4_reach_try(g, state, G4_ALL_SORTS, &first);
    const g4_sorts out = first != 0 ? g4_reach_out(g, &g->lexer[state]) : 0;
    g->lexer[state].has_reach = 1;
    g->lexer[state].filters = 0;
    g->lexer[state].reach = reach;
    g->lexer[state].out = out;
    uint8_t ends = 0;
    const g4_sorts beyond = g->failed ? G4_ALL_SORTS : g4_reach_beyond(g, state, G4_ALL_SORTS, reach, &ends);
    g->lexer[state].beyond = beyond;
    g->lexer[state].ends = ends;
    memset(g->lexer[state].safe, 0, sizeof g->lexer[state].safe);
    int i = 0, goes_on = reach != G4_ENDLESS && first != 0;
    while (goes_on && i < (out == 0 ? G4_N_SAFE : 1) &&
           g4_reach_learn_safe(g, state, i, G4_ALL_SORTS & ~out, out == 0 ? first : 0, 0))
        goes_on = g->lexer[state].n_safe[i++] >= G4_REACH_ENOUGH;
    if (reach != G4_ENDLESS && i == 0 && !g->failed)
        g4_reach_learn_safe(g, state, 0, g4_reach_alike(g, state, out), 0, 0);
    if (out != 0 && !g->failed) g4_reach_learn_filter(g, state);
}

static g4_reach g4_reach_of(g4_grammar *g, int32_t state, g4_sorts sorts)
{
    g4_sorts way;
    const uint32_t hash = (uint32_t)(g4_hash_mix((uint32_t)state, sorts) >> 32);
    g4_reach *known = &g->reaches[hash % G4_N_REACHES];
    if (known->state != state || known->sorts != sorts) {
        const uint8_t n_chars = g4_reach_try(g, state, sorts, &way);
        uint8_t ends;
        const g4_sorts beyond = g4_reach_beyond(g, state, sorts, n_chars, &ends);
        *known = (g4_reach) { state, sorts, beyond, ends, n_chars };
    }
    return *known;
}

/* ---- What is ahead within a lexeme --------------------------------------------------------------- */

static inline void g4_ids_add(g4_grammar *g, g4_ids *list, uint32_t id)
{
    if (list->n == list->cap) {
        uint32_t *ids = g4_grammar_grow(g, list->ids, list->n, &list->cap, sizeof *ids);
        if (ids == NULL) return;
        list->ids = ids;
    }
    list->ids[list->n++] = id;
}

static void g4_inside_begin_range(g4_grammar *g, uint32_t which, uint32_t first, uint32_t end)
{
    g4_word_range *inside = g4_grammar_grow(g, g->inside, g->n_ranges, &g->cap_ranges, sizeof *inside);
    if (inside == NULL) return;
    g->inside = inside;
    inside[g->n_ranges++] = (g4_word_range) { which, first, end };
}

/* Words first to end of a tree stay inside the lexeme. They come in ascending order. */
static inline void g4_inside_add(g4_grammar *g, uint32_t which, uint32_t first, uint32_t end)
{
    g4_word_range *last = g->n_ranges > 0 ? &g->inside[g->n_ranges - 1] : NULL;
    if (last != NULL && last->end == first && last->trie == which)
        last->end = end;
    else if (first != end)
        g4_inside_begin_range(g, which, first, end);
}

/* Words inside, by tree. */
static void g4_inside_count(const g4_grammar *g, uint32_t n[2])
{
    n[0] = n[1] = 0;
    for (int i = 0; i < g->n_ranges; i++) n[g->inside[i].trie] += g->inside[i].end - g->inside[i].first;
}

/* Set the bits of the words inside, among bits that are 0. When those are most of the plain ones, the others are what
 * is looked at. */
static void g4_inside_mark(const g4_grammar *g, uint32_t *bits)
{
    const g4_vocabulary *v = g->vocabulary;
    const size_t n_words = g4_mask_words((int)g->t->n_vocab);
    const g4_trie *plain = &v->tries[G4_TRIE_PLAIN];
    const uint32_t n_plain = plain->nodes[0].end;
    uint32_t at = 0, n_inside[2];
    g4_inside_count(g, n_inside);
    const int is_most = n_inside[G4_TRIE_PLAIN] > n_plain / 2;
    if (is_most) memcpy(bits, v->plain + v->longest_plain * n_words, n_words * sizeof *bits);
    for (int i = 0; i < g->n_ranges; i++) {
        const g4_word_range k = g->inside[i];
        if (k.trie == G4_TRIE_PLAIN && is_most) {
            for (; at < k.first; at++) bits[plain->ids[at] / 32] &= ~(1u << (plain->ids[at] % 32));
            at = k.end;
        } else {
            for (uint32_t w = k.first; w < k.end; w++) g4_mask_set(bits, v->tries[k.trie].ids[w]);
        }
    }
    for (; is_most && at < n_plain; at++) bits[plain->ids[at] / 32] &= ~(1u << (plain->ids[at] % 32));
}

static inline int g4_bytes_have(const uint32_t bytes[8], uint8_t byte) { return bytes[byte / 32] >> (byte % 32) & 1; }

static void g4_lexer_begin_ends(g4_grammar *g, const uint32_t follow[8])
{
    g->n_completions = 0;
    g->follow = follow;
    g->follow_sorts = 0;
    for (int b = 0; b < 256; b++) /* within a character any may follow */
        if (g4_bytes_have(follow, (uint8_t)b))
            g->follow_sorts |= g4_utf8_continues((char)b) ? G4_ALL_SORTS : g->vocabulary->sort_of[b];
}

static void g4_lexer_put_end(g4_grammar *g, g4_word_end end)
{
    g4_word_end *completions =
        g4_grammar_grow(g, g->completions, g->n_completions, &g->cap_completions, sizeof *completions);
    if (completions == NULL) return;
    g->completions = completions;
    completions[g->n_completions++] = end;
}

/* The lexeme may end at a node of a tree: tokens below may run over its end, if they go on with what may follow. */
static void g4_lexer_complete(g4_grammar *g, uint32_t which, uint32_t node, uint32_t depth)
{
    const g4_trie *t = &g->vocabulary->tries[which];
    const g4_trie_node *n = &t->nodes[node];
    const uint8_t *next = t->bytes + n->child, *end = next + n->n_children;
    if (t->is_plain && n->is_whole && (n->sorts & g->follow_sorts) == 0) return;
    while (next < end && !g4_bytes_have(g->follow, *next)) next++;
    if (next < end) g4_lexer_put_end(g, (g4_word_end) { which, node, G4_WORDS_BELOW, depth });
}

typedef struct {     /* what is known of a place in a walk */
    int n;           /* so many plain characters stay inside, whatever they are, behind the one that has begun; -1: not
                        even what is left of that one */
    g4_sorts beyond; /* and behind these all but those of these sorts lead out, if n is not below 0 */
} g4_lexer_reach;

/* As many stay inside as is known in two ways. A lexeme that may have ended before goes on with what may follow it. */
static inline void g4_lexer_raise(const g4_grammar *g, g4_lexer_reach *r, int n, g4_sorts beyond, int ends)
{
    if (n < r->n) return;
    if (ends) beyond |= g->follow_sorts;
    r->beyond = n > r->n ? beyond : r->beyond & beyond;
    r->n = n;
}

typedef struct { /* a level of a walk: brothers that are still to be visited, from a state */
    uint32_t next, end;
    int32_t state;
    int k;          /* of the state's few bytes */
    uint32_t chars; /* that have begun on the way here */
    g4_lexer_reach reach;
} g4_lexer_level;

/* The next node of a level that the state allows, and the state behind it; 0: there is none. In a plain tree, nodes
 * below which nothing is longer than what stays inside are passed by: most are. */
static inline uint32_t g4_lexer_next(g4_grammar *g, uint32_t which, int is_plain, g4_lexer_level *l, int32_t *state)
{
    const g4_trie *t = &g->vocabulary->tries[which];
    const g4_sorts *sort_of = g->vocabulary->sort_of;
    const g4_lexer_state *s = &g->lexer[l->state];
    while (s->n_live > G4_NARROW && l->next < l->end) {
        const uint32_t node = l->next++;
        const uint8_t byte = t->bytes[node];
        const g4_trie_node *n = &t->nodes[node];
        *state = s->row[byte];
        if (*state == 0) continue;
        g->n_visited++;
        if (!is_plain || n->n_chars > l->reach.n - (sort_of[byte] != 0)) return node;
        g4_inside_add(g, which, n->first, n->end);
    }
    while (s->n_live <= G4_NARROW && l->k < s->n_live && l->next < l->end) {
        const uint8_t *found = memchr(t->bytes + l->next, s->live[l->k], l->end - l->next);
        *state = s->to[l->k++];
        if (found == NULL) continue;
        l->next = (uint32_t)(found - t->bytes) + 1;
        g->n_visited++;
        return l->next - 1;
    }
    return 0;
}

static inline g4_lexer_level g4_lexer_below(const g4_trie *t, uint32_t node, uint32_t chars, int32_t state,
                                            g4_lexer_reach reach)
{
    const g4_trie_level below = g4_trie_below(t, node);
    return (g4_lexer_level) { .next = below.next, .end = below.end, .state = state, .chars = chars, .reach = reach };
}

/* Do so many characters of these sorts stay inside behind a state, as far as is known? */
static inline int g4_lexer_is_safe(const g4_lexer_state *s, g4_sorts sorts, int n_chars)
{
    for (int i = 0; i < G4_N_SAFE && s->safe[i] != 0; i++)
        if ((sorts & ~s->safe[i]) == 0 && n_chars <= s->n_safe[i]) return 1;
    return 0;
}

/* The same below a node where whole characters have led to a state, with some more searching. */
static int g4_lexer_find_all(g4_grammar *g, const g4_trie_node *n, int32_t state, g4_lexer_reach *reach)
{
    if (!g->lexer[state].has_reach) g4_reach_learn(g, state);
    const g4_lexer_state *s = &g->lexer[state];
    g4_lexer_raise(g, reach, s->reach, s->beyond, s->ends);
    if (n->n_chars <= reach->n || g4_lexer_is_safe(s, n->sorts, n->n_chars)) return 1;
    if (n->end - n->first < G4_REACH_WORTH_SORTS || (n->sorts & s->out) != 0) return 0;
    const g4_reach known = g4_reach_of(g, state, n->sorts);
    if (known.n_chars > 0) g4_lexer_raise(g, reach, known.n_chars, known.beyond, known.ends);
    return n->n_chars <= reach->n;
}

/* Do all words below a node stay inside? reach: as it is known; it may become more. */
static inline int g4_lexer_has_all(g4_grammar *g, const g4_trie_node *n, int32_t state, g4_lexer_reach *reach)
{
    const g4_lexer_state *s = &g->lexer[state];
    if (n->is_whole) g4_lexer_raise(g, reach, s->reach, s->beyond, s->ends);
    if (n->n_chars <= reach->n) return 1;
    if (!n->is_whole) return 0;
    if (g4_lexer_is_safe(s, n->sorts, n->n_chars)) return 1;
    return n->end - n->first >= G4_REACH_WORTH && g->reach_left > 0 && g4_lexer_find_all(g, n, state, reach);
}

/* Is a node the first byte of a character behind a state from which that one and all below it stay inside? */
static inline int g4_lexer_begins_safe(const g4_grammar *g, const g4_trie *t, uint32_t node, int32_t state)
{
    const g4_sorts sort = g->vocabulary->sort_of[t->bytes[node]];
    const g4_trie_node *n = &t->nodes[node];
    return sort != 0 && g4_lexer_is_safe(&g->lexer[state], sort | n->sorts, n->n_chars + 1);
}

/* The words below a node of the plain tree are allowed or not by the sorts of their characters, if all of these still
 * count: those that are read must not be among them. Returns 0 when they are not. */
static int g4_lexer_filter(g4_grammar *g, const g4_trie_node *n, uint32_t depth, int32_t state)
{
    const g4_vocabulary *v = g->vocabulary;
    const g4_lexer_state *s = &g->lexer[state];
    const g4_sorts without = n->sorts & ~s->safe[0];
    uint32_t len;
    if (!s->filters || !n->is_whole || (s->may_end && g->follow_sorts != 0)) return 0;
    const uint8_t *text = g4_tokenizer_text(g->t, v->tries[G4_TRIE_PLAIN].ids[n->first], &len);
    for (uint32_t i = 0; i < depth; i++)
        if (v->sort_of[text[i]] & without) return 0;
    g->n_visited += (n->end - n->first) / G4_FILTERED_A_VISIT;
    for (uint32_t i = n->first, from; i < n->end;) {
        while (i < n->end && (v->word_sorts[i] & without) != 0) i++;
        for (from = i; i < n->end && (v->word_sorts[i] & without) == 0;) i++;
        g4_inside_add(g, G4_TRIE_PLAIN, from, i);
    }
    return 1;
}

/* The words below a node of the plain tree, behind so many characters, stay inside if they have few more, where none
 * has what may follow these. Returns 0 when one may have. */
static int g4_lexer_cut(g4_grammar *g, const g4_trie_node *n, uint32_t chars, g4_lexer_reach reach)
{
    const uint8_t *word_chars = g->vocabulary->word_chars;
    const int most = (int)chars + reach.n;
    if (!n->is_whole || (n->sorts & reach.beyond) != 0) return 0;
    g->n_visited += (n->end - n->first) / G4_FILTERED_A_VISIT;
    for (uint32_t i = n->first, from; i < n->end;) {
        while (i < n->end && word_chars[i] > most) i++;
        for (from = i; i < n->end && word_chars[i] <= most;) i++;
        g4_inside_add(g, G4_TRIE_PLAIN, from, i);
    }
    return 1;
}

/* A state in a tail of a word, before its byte number `depth`, that is new to walks or accepts. */
static void g4_lexer_pause(g4_grammar *g, g4_word_end end, uint8_t byte, int32_t state)
{
    if (g->lexer[state].row == NULL) g4_lexer_open_row(g, state);
    if (!g->failed && g->lexer[state].accepts && g4_bytes_have(g->follow, byte)) g4_lexer_put_end(g, end);
}

/* Read the tails of a node from the state behind that. Words of at most so many characters stay inside. */
static void g4_lexer_read_tails(g4_grammar *g, uint32_t which, uint32_t node, uint32_t depth, int32_t behind, int most)
{
    const g4_trie *t = &g->vocabulary->tries[which];
    const g4_trie_node *n = &t->nodes[node];
    const uint8_t *tail = t->tails + n->child;
    g->n_visited += n->end - n->first;
    for (uint32_t w = n->first; w < n->end; w++) {
        const uint8_t *begin = tail + 1, *end = begin + *tail;
        int32_t state = behind;
        if (most > 0 && g->vocabulary->word_chars[w] <= most) {
            tail = end;
            g4_inside_add(g, which, w, w + 1);
            continue;
        }
        for (tail = begin; tail < end && state != 0; tail++) {
            if (!g->lexer[state].goes_on) {
                const g4_word_end at = { which, node, w, depth + (uint32_t)(tail - begin) };
                g4_lexer_pause(g, at, *tail, state);
                if (g->failed) return;
            }
            state = g->lexer[state].row[*tail];
        }
        tail = end;
        if (state != 0) g4_inside_add(g, which, w, w + 1);
    }
}

/* Walk a tree of the vocabulary from a state with a row: `inside` gets the tokens that stay inside. */
static inline void g4_lexer_walk_tree(g4_grammar *g, uint32_t which, int is_plain, int32_t state)
{
    const g4_trie *t = &g->vocabulary->tries[which];
    const g4_sorts *sort_of = g->vocabulary->sort_of;
    g4_lexer_level levels[G4_TRIE_DEPTH];
    uint32_t depth = 1;
    g4_lexer_reach all = { 0, G4_ALL_SORTS };
    if (is_plain) g4_lexer_has_all(g, &t->nodes[0], state, &all);
    if (is_plain && g4_lexer_filter(g, &t->nodes[0], 0, state)) return;
    g4_lexer_level level = g4_lexer_below(t, 0, 0, state, all);
    while (!g4_grammar_stops(g)) {
        int32_t next;
        const uint32_t node = g4_lexer_next(g, which, is_plain, &level, &next);
        if (node == 0) {
            if (--depth == 0) return;
            level = levels[depth];
            continue;
        }
        const g4_trie_node *n = &t->nodes[node];
        const int begins = sort_of[t->bytes[node]] != 0;
        g4_lexer_reach reach = { level.reach.n - begins, level.reach.beyond };
        if ((is_plain && n->n_chars <= reach.n) || (n->n_children == 0 && !n->has_tails) ||
            (is_plain && (g4_lexer_has_all(g, n, next, &reach) || g4_lexer_begins_safe(g, t, node, level.state)))) {
            g4_inside_add(g, which, n->first, n->end);
            continue;
        }
        const uint32_t chars = level.chars + (uint32_t)begins;
        if (is_plain && g4_lexer_cut(g, n, chars, reach)) continue;
        if (n->has_tails) {
            g4_lexer_read_tails(g, which, node, depth, next, is_plain ? (int)chars + reach.n : 0);
            continue;
        }
        if (is_plain && n->end - n->first >= G4_REACH_WORTH && g4_lexer_filter(g, n, depth, next)) continue;
        g4_inside_add(g, which, n->first, t->nodes[n->child].first);
        if (g->lexer[next].accepts) g4_lexer_complete(g, which, node, depth);
        if (g->lexer[next].row == NULL) g4_lexer_open_row(g, next);
        const int is_over = is_plain && n->is_whole && (n->sorts & g->lexer[next].may) == 0;
        if (is_over) continue;
        levels[depth++] = level;
        level = g4_lexer_below(t, node, chars, next, reach);
    }
}

/* What the body of a repeat is: PLAIN, it holds every plain character, and SINGLE, it holds no more than one in a row.
 * */
enum { G4_BODY_PLAIN = 1, G4_BODY_SINGLE = 2 };

static int g4_lexer_body(g4_grammar *g, g4_re body)
{
    g4_regular *r = g->net.regular;
    const int max = sizeof g->bodies / sizeof g->bodies[0];
    for (int i = 0; i < g->n_bodies; i++)
        if (g->bodies[i].body == body) return g->bodies[i].is_plain;
    if (g->plain == G4_RE_NONE) {
        g4_char_range ranges[G4_N_STRING_RANGES];
        memcpy(ranges, g4_string_ranges, sizeof ranges);
        g->plain = g4_re_class(r, &(g4_class) { .ranges = ranges, .n = G4_N_STRING_RANGES }, G4_RAW);
    }
    int what = g4_re_within(r, g->plain, body) == 1 ? G4_BODY_PLAIN : 0;
    if (what != 0 && g4_re_disjoint(r, body, g4_re_repeat(r, g->plain, 2, -1)) == 1) what |= G4_BODY_SINGLE;
    if (g4_grammar_steps_stop(g, -1)) return 0;
    if (g->n_bodies == max) g->n_bodies = 0;
    g->bodies[g->n_bodies].body = body;
    g->bodies[g->n_bodies++].is_plain = what;
    return what;
}

/* May a plain character go on with `rest`, or with what follows it? */
static int g4_lexer_goes_on_plain(g4_grammar *g, g4_re rest, const uint32_t follow[8])
{
    const g4_re_view v = g4_re_steps_of(g->net.regular, rest);
    const int accepts = g4_re_accepts(g->net.regular, rest);
    for (int b = 0x20; b < 256; b++) {
        if (b == '"' || b == '\\') continue;
        if (v.to[v.class_of[b]] != G4_RE_NONE || (accepts && (follow[b / 32] >> (b % 32) & 1))) return 1;
    }
    return 0;
}

#define G4_PLAIN_MAX_DEPTH 6
typedef struct {  /* so many plain characters may follow whatever they are: a text goes on behind them */
    int32_t n;    /* G4_PLAIN_ENDLESS: any number */
    int is_exact; /* and no more of them, before what follows the expression */
} g4_plain_count;
#define G4_PLAIN_ENDLESS INT32_MAX

static g4_plain_count g4_lexer_plain_of(g4_grammar *g, g4_re re, const uint32_t follow[8], int depth);

/* Of what must be each of several: repeats that bound their counts, or which go on for ever, but for texts that are
 * left out and end. */
static g4_plain_count g4_lexer_plain_all(g4_grammar *g, g4_re re, const uint32_t follow[8], int depth)
{
    g4_regular *r = g->net.regular;
    const int n = g4_re_n_operands(r, re);
    g4_plain_count all = { G4_PLAIN_ENDLESS, 1 };
    int32_t least = 0, has_without = 0;
    for (int i = 0; i < n && !g->failed; i++) {
        int32_t min, max;
        g4_re head, rest, body;
        const g4_re operand = g4_re_operand(r, re, i);
        if (g4_re_is_without(r, operand)) {
            has_without = 1;
            continue;
        }
        g4_re_split(r, operand, &head, &rest);
        if (!g4_re_is_repeat(r, head, &body, &min, &max)) return (g4_plain_count) { 0, 0 };
        const g4_plain_count one = g4_lexer_plain_of(g, operand, follow, depth);
        if (one.n != G4_PLAIN_ENDLESS && (rest != G4_RE_EMPTY || !one.is_exact)) return (g4_plain_count) { 0, 0 };
        least = g4_max_int(least, rest == G4_RE_EMPTY ? min : G4_PLAIN_ENDLESS);
        all.n = g4_min_int(all.n, one.n);
    }
    if (all.n != G4_PLAIN_ENDLESS && (has_without || least > all.n)) all.n = all.is_exact = 0;
    return all;
}

static g4_plain_count g4_lexer_plain_of(g4_grammar *g, g4_re re, const uint32_t follow[8], int depth)
{
    g4_regular *r = g->net.regular;
    const g4_plain_count none = { 0, 0 };
    int32_t min, max;
    g4_re head, rest, body;
    if (depth > G4_PLAIN_MAX_DEPTH || g->failed) return none;
    g4_re_split(r, re, &head, &rest);
    if (rest != G4_RE_EMPTY) {
        g4_plain_count first = g4_lexer_plain_of(g, head, follow, depth + 1);
        if (first.n != G4_PLAIN_ENDLESS) first.is_exact = first.is_exact && !g4_lexer_goes_on_plain(g, rest, follow);
        return first;
    }
    if (g4_re_is_repeat(r, re, &body, &min, &max)) {
        const int what = g4_lexer_body(g, body);
        if (!(what & G4_BODY_PLAIN)) return none;
        return max < 0 ? (g4_plain_count) { G4_PLAIN_ENDLESS, 1 }
                       : (g4_plain_count) { max, (what & G4_BODY_SINGLE) != 0 };
    }
    if (g4_re_is_and(r, re)) return g4_lexer_plain_all(g, re, follow, depth + 1);
    const int n = g4_re_n_operands(r, re);
    for (int i = 0; i < n && i < G4_PLAIN_MAX_CHOICES && !g->failed; i++) /* one of several */
        if (g4_lexer_plain_of(g, g4_re_operand(r, re, i), follow, depth + 1).n == G4_PLAIN_ENDLESS)
            return (g4_plain_count) { G4_PLAIN_ENDLESS, 1 };
    return none;
}

/* How many plain characters may follow whatever they are, so that all plain tokens of so many stay inside; 0: nothing
 * is known. *walks: longer ones may fit too, or run over the end. */
static uint32_t g4_lexer_plain(g4_grammar *g, g4_re re, const uint32_t follow[8], int *walks)
{
    const int32_t longest = (int32_t)g->vocabulary->longest_plain;
    const g4_plain_count count = g4_lexer_plain_of(g, re, follow, 0);
    g4_re head, rest;
    g4_re_split(g->net.regular, re, &head, &rest);
    *walks = count.n < longest &&
             (!count.is_exact || (rest == G4_RE_EMPTY && g4_lexer_goes_on_plain(g, G4_RE_EMPTY, follow)));
    return g->failed ? 0 : (uint32_t)g4_min_int(count.n, longest);
}

/* Of words of a tree, those that do not stay inside, without the bytes up to where the lexeme may end. */
static void g4_ends_collect_words(g4_grammar *g, const g4_word_end *c, const uint32_t *set, uint32_t first,
                                  uint32_t end)
{
    const g4_trie *t = &g->vocabulary->tries[c->trie];
    for (uint32_t i = first; i < end && g->n_words <= G4_MAX_ENDS; i++) {
        const uint32_t id = t->ids[i], bit = 1u << (id % 32);
        if ((g->marked[id / 32] & bit) || (set != NULL && (set[id / 32] & bit))) continue;
        g4_word *words = g4_grammar_grow(g, g->words, g->n_words, &g->cap_words, sizeof *words);
        if (words == NULL) return;
        g->words = words;
        g4_word w = { .id = id };
        w.text = g4_tokenizer_text(g->t, id, &w.len) + c->depth;
        w.len -= c->depth;
        words[g->n_words++] = w;
    }
}

/* Of the tokens in which the lexeme may end, those that go on with what may follow. */
static void g4_ends_collect(g4_grammar *g, const g4_word_end *c, const uint32_t *set, const uint32_t follow[8])
{
    const g4_trie *t = &g->vocabulary->tries[c->trie];
    const g4_trie_level below = g4_trie_below(t, c->node);
    if (c->word != G4_WORDS_BELOW) {
        g4_ends_collect_words(g, c, set, c->word, c->word + 1);
        return;
    }
    for (uint32_t child = below.next; child < below.end && !g4_grammar_stops(g); child++)
        if (g4_bytes_have(follow, t->bytes[child]))
            g4_ends_collect_words(g, c, set, t->nodes[child].first, t->nodes[child].end);
}

/* All ends of tokens that run over the end of the lexeme, as a tree. */
static void g4_ends_make(g4_grammar *g, g4_ahead *out, const uint32_t follow[8])
{
    g->n_words = 0;
    if (g->n_completions <= G4_FEW_ENDS) {
        out->at = g->completions;
        out->n_at = g->n_completions;
        return;
    }
    g4_inside_mark(g, g->marked);
    for (int i = 0; i < g->n_completions && g->n_words <= G4_MAX_ENDS && !g->failed; i++)
        g4_ends_collect(g, &g->completions[i], out->set, follow);
    memset(g->marked, 0, g4_mask_words((int)g->t->n_vocab) * sizeof *g->marked);
    out->is_wide = g->n_words > G4_MAX_ENDS;
    if (g->failed || out->is_wide || g->n_words == 0) return;
    if (!g4_words_sort(g->a, g->words, (uint32_t)g->n_words, g->asker.halt) ||
        !g4_trie_make(&out->ends, g->a, g->words, (uint32_t)g->n_words, 1, g->asker.halt))
        g4_grammar_no_memory(g);
}

/* What is ahead within an expression, in memory that is used again; nothing after a failure. */
static void g4_ahead_find(g4_grammar *g, g4_ahead *out, g4_re re, const uint32_t follow[8])
{
    const size_t n_words = g4_mask_words((int)g->t->n_vocab);
    int walks;
    if (g->n_lexer > G4_MAX_LEXER) g4_lexer_forget(g);
    g->reach_left = G4_MAX_REACH;
    const int32_t state = g4_lexer_open(g, re);
    g->n_ranges = 0;
    g4_lexer_begin_ends(g, follow);
    if (state == 0) return;
    const uint32_t n_plain = g4_lexer_plain(g, re, follow, &walks);
    if (n_plain > 0) out->set = g->vocabulary->plain + n_plain * n_words;
    if (walks) g4_lexer_walk_tree(g, G4_TRIE_PLAIN, 1, state);
    if (!g->failed) g4_lexer_walk_tree(g, G4_TRIE_REST, 0, state);
    if (!g->failed) g4_ends_make(g, out, follow);
}

/* A copy of n elements behind *place, which moves on; places are aligned for all of them. */
static void *g4_ahead_put(uint8_t **place, const void *from, size_t n, size_t size)
{
    uint8_t *at = *place;
    if (n > 0) memcpy(at, from, n * size);
    *place += (n * size + 15) / 16 * 16;
    return at;
}

/* What was found as one block: of the vocabulary's memory, if it is worth sharing, or of the grammar's. */
static const g4_ahead *g4_ahead_keep(g4_grammar *g, const g4_ahead *found, int is_costly, const uint64_t key[2])
{
    const size_t n_words = g4_mask_words((int)g->t->n_vocab);
    uint32_t n_in[2];
    g4_inside_count(g, n_in);
    const uint32_t n_inside = n_in[0] + n_in[1];
    const int has_own = n_inside > (found->set != NULL ? G4_MAX_LIST_BESIDE : G4_MAX_LIST);
    const g4_trie *ends = &found->ends;
    const uint32_t n_ends = ends->n_nodes > 0 ? ends->nodes[0].end : 0;
    const size_t n_ids = has_own ? 0 : n_inside, n_own = has_own ? n_words : 0;
    const size_t size = sizeof(g4_ahead) + n_own * 4 + n_ids * 4 + ends->n_nodes * (sizeof *ends->nodes + 1) +
                        ends->n_tails + (size_t)n_ends * 4 + (size_t)found->n_at * sizeof *found->at + (size_t)8 * 16;
    g4_ahead *out = is_costly ? g4_alloc(g->vocabulary->a, 1, size) : g4_arena_alloc(&g->ahead_memory, size);
    if (out == NULL) {
        g4_grammar_no_memory(g);
        return NULL;
    }
    uint8_t *place = (uint8_t *)(out + 1);
    place += (16 - (uintptr_t)place % 16) % 16;
    *out = *found;
    out->finding = (g4_finding) { .key = { key[0], key[1] } };
    if (has_own) {
        uint32_t *own = (uint32_t *)(void *)place;
        place += (n_own * 4 + 15) / 16 * 16;
        g4_inside_mark(g, own);
        for (size_t i = 0; i < n_words && found->set != NULL; i++) own[i] |= found->set[i];
        out->set = own;
    }
    out->ids = (const uint32_t *)(const void *)place;
    out->n_ids = (int)n_ids;
    uint32_t *ids = (uint32_t *)(void *)place;
    for (int i = 0; i < g->n_ranges && !has_own; i++)
        for (uint32_t w = g->inside[i].first; w < g->inside[i].end; w++)
            *ids++ = g->vocabulary->tries[g->inside[i].trie].ids[w];
    place += (n_ids * 4 + 15) / 16 * 16;
    out->at = g4_ahead_put(&place, found->at, (size_t)found->n_at, sizeof *found->at);
    out->ends.nodes = g4_ahead_put(&place, ends->nodes, ends->n_nodes, sizeof *ends->nodes);
    out->ends.ids = g4_ahead_put(&place, ends->ids, n_ends, 4);
    out->ends.bytes = g4_ahead_put(&place, ends->bytes, ends->n_nodes, 1);
    out->ends.tails = g4_ahead_put(&place, ends->tails, ends->n_tails, 1);
    if (!is_costly) {
        g->ahead_bytes += size;
        return out;
    }
    if (g4_vocabulary_keep(g->vocabulary, &out->finding, size)) return out;
    g4_free(g->vocabulary->a, out);
    return g4_ahead_keep(g, found, 0, key);
}

static const g4_ahead *g4_ahead_make(g4_grammar *g, g4_re re, int32_t follow)
{
    const uint32_t *bytes = g->net.follow_sets[follow].bytes;
    uint64_t key[2];
    g4_re_print(g->net.regular, re, key);
    for (int i = 0; i < 8; i++) {
        key[0] = g4_hash_mix(key[0], bytes[i]);
        key[1] = g4_hash_mix(key[1] + 1, bytes[i]);
    }
    const g4_finding *shared = g4_vocabulary_find(g->vocabulary, key);
    if (shared != NULL) return (const g4_ahead *)(const void *)shared;
    g4_ahead found = { .n_ids = 0 };
    const uint64_t before = g->n_visited + 16 * g->n_rows;
    g4_ahead_find(g, &found, re, bytes);
    const int is_costly = g->n_visited + 16 * g->n_rows - before > G4_COSTLY;
    const g4_ahead *out = g->failed ? NULL : g4_ahead_keep(g, &found, is_costly, key);
    g4_trie_free(&found.ends, g->a);
    return out;
}

/* What is ahead within an expression whose counts are cut; NULL: something failed. */
static const g4_ahead *g4_ahead_of(g4_grammar *g, g4_re re, int32_t follow)
{
    const uint32_t hash = (uint32_t)(g4_hash_mix(g4_hash_mix(5, (uint32_t)re), (uint32_t)follow) >> 16);
    uint32_t at = 0;
    if (!g4_grammar_reserve(g, &g->ahead_table, g->n_aheads)) return NULL;
    for (int32_t i; (i = g4_table_next(&g->ahead_table, hash, &at)) >= 0;)
        if (g->aheads[i].re == re && g->aheads[i].follow == follow) return g->aheads[i].ahead;
    g4_ahead_entry *aheads = g4_grammar_grow(g, g->aheads, g->n_aheads, &g->cap_aheads, sizeof *aheads);
    if (aheads == NULL) return NULL;
    g->aheads = aheads;
    const g4_ahead *made = g4_ahead_make(g, re, follow);
    if (made == NULL) return NULL;
    aheads[g->n_aheads] = (g4_ahead_entry) { re, follow, made };
    g4_table_put(&g->ahead_table, hash, g->n_aheads++);
    return made;
}

/* ---- Masks --------------------------------------------------------------------------------------- */

/* Are there many texts of an expression that differ as values, as far as is known? Of one that is not empty: then a
 * part with many texts is enough. */
static int g4_item_has_many(g4_grammar *g, g4_re re, int depth)
{
    g4_regular *r = g->net.regular;
    g4_re head, rest, body;
    int32_t min, max;
    int n_many = 0, n_others = 0;
    if (depth > G4_PLAIN_MAX_DEPTH || g->failed) return 0;
    g4_re_split(r, re, &head, &rest);
    if (rest != G4_RE_EMPTY) return g4_item_has_many(g, head, depth + 1) || g4_item_has_many(g, rest, depth + 1);
    if (g4_re_is_repeat(r, re, &body, &min, &max)) {
        const g4_re_view v = g4_re_steps_of(r, body);
        for (int b = 0x20; b < 0x7f && n_many < 2; b++)
            n_many += b != '"' && b != '\\' && g4_re_accepts(r, v.to[v.class_of[b]]);
        return n_many == 2 && (max < 0 || max >= G4_MANY_CHARS) && !g4_grammar_steps_stop(g, -1);
    }
    const int is_and = g4_re_is_and(r, re), n = g4_re_n_operands(r, re);
    for (int i = 0; i < n && i < G4_PLAIN_MAX_CHOICES; i++) {
        const g4_re operand = g4_re_operand(r, re, i);
        if (is_and && g4_re_is_without(r, operand)) continue;
        if (g4_item_has_many(g, operand, depth + 1))
            n_many++;
        else
            n_others++;
    }
    return is_and ? n_many == 1 && n_others == 0 && n <= G4_PLAIN_MAX_CHOICES : n_many > 0;
}

typedef struct {                    /* behind an item whose value does not count as used yet */
    const g4_grammar_state *places; /* that begin the next one; NULL: nothing is sure */
    int is_long;                    /* no item that a token holds whole can have that value */
} g4_begun;

/* Has the text of an item more characters than a token, or a number? Blanks may stand before it, and each escape of at
 * most 6 bytes is half a character at least. */
static int g4_item_is_long(const g4_grammar *g, int32_t text)
{
    const int longest = g4_max_int((int)g->vocabulary->longest, G4_NUMBER_DIGITS) + 3; /* a comma, and quotes */
    int n = 0, n_escapes = 0;
    for (int32_t k = text; k > G4_ITEM_BEGINS; k = g->texts[k].before) {
        n += g->texts[k].byte > 0x20 && !g4_utf8_continues((char)g->texts[k].byte);
        n_escapes += g->texts[k].byte == '\\';
        if (n - 6 * n_escapes > longest || n > 12 * longest) return 1;
    }
    return 0;
}

/* Would what was read behind such an item fit whatever its value is? It does where that value cannot have come again
 * and there are many others. */
static int g4_item_is_sure(g4_grammar *g, int32_t state, const g4_begun *begun)
{
    const g4_grammar_state *s = g->states[state];
    for (int i = 0; begun->places != NULL && i < s->n; i++) {
        const g4_place p = s->places[i];
        int is_next = begun->is_long;
        for (int k = 0; k < begun->places->n; k++) is_next |= begun->places->places[k].stack == p.stack;
        if (p.text == 0 ? begun->is_long : is_next && g4_item_has_many(g, p.re, 0)) return 1;
    }
    return 0;
}

/* Words of a tree fit: begun says whether that is sure. */
static void g4_grammar_allow(g4_grammar *g, const g4_trie *t, uint32_t first, uint32_t end, int32_t state,
                             const g4_begun *begun)
{
    const int is_sure = begun == NULL || first == end || g4_item_is_sure(g, state, begun);
    for (uint32_t i = first; i < end; i++) g4_ids_add(g, is_sure ? &g->allowed : &g->doubtful, t->ids[i]);
}

/* A word of a tree fits if n bytes can be read from a state on. */
static void g4_grammar_read_end(g4_grammar *g, const g4_trie *t, uint32_t word, const uint8_t *text, uint32_t n,
                                int32_t state, const g4_begun *begun)
{
    for (uint32_t i = 0; i < n && state != 0 && !g4_grammar_stops(g); i++) {
        state = g4_grammar_step(g, state, text[i]);
        g->n_visited++;
    }
    if (state != 0 && !g->failed) g4_grammar_allow(g, t, word, word + 1, state, begun);
}

/* Read what the words of a tree have below a node from a state on: `allowed` gets those that fit. They begin with the
 * bytes in `first`. begun: where items begin; `doubtful` gets those that are not sure then. NULL: all are. */
static void g4_grammar_walk(g4_grammar *g, const g4_trie *t, uint32_t from, int32_t state, const uint32_t first[8],
                            const g4_begun *begun)
{
    g4_trie_level levels[G4_TRIE_DEPTH];
    int32_t states[G4_TRIE_DEPTH];
    uint32_t depth = 1;
    levels[0] = g4_trie_below(t, from);
    states[0] = state;
    while (depth > 0 && !g4_grammar_stops(g)) {
        g4_trie_level *l = &levels[depth - 1];
        if (l->next == l->end) {
            depth--;
            continue;
        }
        const uint32_t node = l->next++;
        if (depth == 1 && !g4_bytes_have(first, t->bytes[node])) continue;
        const int32_t next = g4_grammar_step(g, states[depth - 1], t->bytes[node]);
        g->n_visited++;
        if (next == 0) continue;
        const g4_trie_node *n = &t->nodes[node];
        g4_grammar_allow(g, t, n->first, g4_trie_end_here(t, n), next, begun);
        const uint8_t *tail = n->has_tails ? t->tails + n->child : NULL;
        for (uint32_t w = n->first; w < n->end && n->has_tails; w++, tail += 1 + *tail)
            g4_grammar_read_end(g, t, w, tail + 1, *tail, next, begun);
        if (n->has_tails) continue;
        states[depth] = next;
        levels[depth++] = g4_trie_below(t, node);
    }
}

typedef struct { /* what a mask is made of, the ids apart */
    const uint32_t *sets[2];
    int n_sets;
    uint32_t *own; /* (n_vocab bits) when the sets are more, or the ids too many */
} g4_mask_parts;

static void g4_mask_parts_own(g4_grammar *g, g4_mask_parts *m)
{
    const size_t n = g4_mask_words((int)g->t->n_vocab);
    if (m->own != NULL) return;
    m->own = g4_alloc(g->a, n, sizeof *m->own);
    if (m->own == NULL) {
        g4_grammar_no_memory(g);
        return;
    }
    for (int k = 0; k < m->n_sets; k++)
        for (size_t i = 0; i < n; i++) m->own[i] |= m->sets[k][i];
    m->n_sets = 0;
}

/* Ids become part of the own set when they are many. */
static void g4_mask_parts_flush(g4_grammar *g, g4_mask_parts *m)
{
    if (g->allowed.n <= G4_MAX_LIST) return;
    g4_mask_parts_own(g, m);
    for (int i = 0; i < g->allowed.n && m->own != NULL; i++) g4_mask_set(m->own, g->allowed.ids[i]);
    g->allowed.n = 0;
}

static void g4_mask_parts_add_set(g4_grammar *g, g4_mask_parts *m, const uint32_t *set)
{
    const size_t n = g4_mask_words((int)g->t->n_vocab);
    for (int k = 0; k < m->n_sets; k++)
        if (m->sets[k] == set) return;
    if (m->n_sets == 2) g4_mask_parts_own(g, m);
    if (m->own == NULL) {
        m->sets[m->n_sets++] = set;
        return;
    }
    for (size_t i = 0; i < n; i++) m->own[i] |= set[i];
}

typedef struct { /* a place of a state, to be put beside those with the same tokens ahead */
    g4_re re;    /* cut */
    int32_t follow, is_item, to, stack;
} g4_ahead_place;

static int g4_ahead_place_compare(const void *pa, const void *pb)
{
    const g4_ahead_place *a = pa, *b = pb;
    if (a->re != b->re) return a->re < b->re ? -1 : 1;
    if (a->follow != b->follow) return a->follow < b->follow ? -1 : 1;
    return a->is_item - b->is_item;
}

/* The part of a state that a closure has made which begins items, or the others. 0: there is none. */
static int32_t g4_state_part(g4_grammar *g, int32_t state, int is_item)
{
    const g4_grammar_state *s = g->states[state];
    g->n_core = 0;
    for (int i = 0; i < s->n; i++)
        if ((s->places[i].text != 0) == is_item) g->core[g->n_core++] = s->places[i];
    return g->n_core > 0 ? g4_state_of(g, 0) : 0;
}

/* Those tokens that run over the end of what is ahead and fit what is behind it. */
static void g4_mask_add_ends(g4_grammar *g, const g4_ahead *ahead, int32_t behind, const uint32_t follow[8],
                             const g4_begun *begun)
{
    if (behind == 0) return;
    if (ahead->ends.n_nodes > 0) g4_grammar_walk(g, &ahead->ends, 0, behind, follow, begun);
    for (int i = 0; i < ahead->n_at && !g->failed; i++) {
        const g4_word_end at = ahead->at[i];
        const g4_trie *t = &g->vocabulary->tries[at.trie];
        if (at.word == G4_WORDS_BELOW) {
            g4_grammar_walk(g, t, at.node, behind, follow, begun);
            continue;
        }
        uint32_t len;
        const uint8_t *text = g4_tokenizer_text(g->t, t->ids[at.word], &len);
        g4_grammar_read_end(g, t, at.word, text + at.depth, len - at.depth, behind, begun);
    }
}

/* Are many values left for an item that begins in this state? */
static int g4_items_have_many(g4_grammar *g, int32_t state)
{
    const g4_grammar_state *s = g->states[state];
    for (int i = 0; i < s->n; i++)
        if (g4_item_has_many(g, s->places[i].re, 0)) return 1;
    return 0;
}

/* Is every item long that is being read in this state? */
static int g4_items_are_long(const g4_grammar *g, int32_t state)
{
    const g4_grammar_state *s = g->states[state];
    for (int i = 0; i < s->n; i++)
        if (s->places[i].text != 0 && !g4_item_is_long(g, s->places[i].text)) return 0;
    return 1;
}

/* The same behind items, each of which must differ from those before it. What comes behind one depends on which it was.
 * Where another may follow and many values are left for it, that hardly matters as long as the next one is little more
 * than begun; the other tokens are read whole. */
static void g4_mask_add_item_ends(g4_grammar *g, const g4_ahead *ahead, int32_t state, int32_t behind,
                                  const uint32_t follow[8])
{
    const int32_t begun = behind != 0 ? g4_state_part(g, behind, 1) : 0;
    if (begun == 0) {
        g4_mask_add_ends(g, ahead, behind, follow, NULL);
        return;
    }
    g4_begun next = { NULL, 0 }; /* nothing is sure */
    g->doubtful.n = 0;
    if (g4_items_have_many(g, begun)) {
        next = (g4_begun) { g->states[begun], g4_items_are_long(g, state) };
        g4_mask_add_ends(g, ahead, g4_state_part(g, behind, 0), follow, NULL);
        behind = begun;
    }
    g4_mask_add_ends(g, ahead, behind, follow, &next);
    for (int i = 0; i < g->doubtful.n && !g4_grammar_stops(g); i++)
        if (g4_grammar_step_token(g, state, (g4_token)g->doubtful.ids[i]) != 0)
            g4_ids_add(g, &g->allowed, g->doubtful.ids[i]);
}

/* The tokens of n places that have the same ahead: those that stay inside, and of those that run over the end the ones
 * that fit behind it. */
static void g4_mask_add_places(g4_grammar *g, g4_mask_parts *m, int32_t state, const g4_ahead_place *places, int n,
                               int *is_wide)
{
    const g4_ahead *ahead = g4_ahead_of(g, places[0].re, places[0].follow);
    if (ahead == NULL && g->failed_rule < 0) g->failed_rule = g->net.nodes[places[0].to].rule;
    if (ahead == NULL) return;
    if (ahead->set != NULL) g4_mask_parts_add_set(g, m, ahead->set);
    for (int i = 0; i < ahead->n_ids; i++) g4_ids_add(g, &g->allowed, ahead->ids[i]);
    if (ahead->is_wide) *is_wide = 1;
    if ((ahead->ends.n_nodes == 0 && ahead->n_at == 0) || g->failed) return;
    g4_closure_begin(g);
    for (int i = 0; i < n; i++) g4_closure_add(g, places[i].to, places[i].stack);
    const int32_t behind = g->failed ? 0 : g4_closure_end(g);
    const uint32_t *follow = g->net.follow_sets[places[0].follow].bytes;
    if (places[0].is_item)
        g4_mask_add_item_ends(g, ahead, state, behind, follow);
    else
        g4_mask_add_ends(g, ahead, behind, follow, NULL);
}

/* The places of a state that read text, with what is ahead of them, sorted by that; the caller frees them. */
static g4_ahead_place *g4_mask_places(g4_grammar *g, const g4_grammar_state *s, int *n)
{
    g4_ahead_place *places = g4_alloc(g->a, (size_t)s->n + 1, sizeof *places);
    *n = 0;
    if (places == NULL) {
        g4_grammar_no_memory(g);
        return NULL;
    }
    for (int i = 0; i < s->n && !g4_grammar_stops(g); i++) {
        const g4_place p = s->places[i];
        if (p.re < 0) {
            const g4_token id = g->controls.id[-p.re];
            if (id >= 0) g4_ids_add(g, &g->allowed, (uint32_t)id);
            continue;
        }
        const g4_re re = g4_re_clamp(g->net.regular, p.re, (int)g->vocabulary->longest);
        if (g4_grammar_steps_stop(g, p.to)) break;
        places[(*n)++] = (g4_ahead_place) { re, g->net.follow[p.to], p.text != 0, p.to, p.stack };
    }
    if (!g->failed && !g4_sort(g->a, places, (size_t)*n, sizeof *places, g4_ahead_place_compare, g->asker.halt))
        g4_grammar_no_memory(g);
    return places;
}

/* Keep what a mask is made of with its state. */
static void g4_mask_keep(g4_grammar *g, int32_t state, g4_mask_parts *m)
{
    const size_t own = m->own != NULL ? g4_mask_words((int)g->t->n_vocab) * sizeof *m->own : 0;
    const size_t bytes = sizeof(g4_token_set) + (size_t)g->allowed.n * sizeof *g->allowed.ids;
    g4_token_set *mask = g4_alloc(g->a, 1, bytes);
    if (mask == NULL) {
        g4_grammar_no_memory(g);
        g4_free(g->a, m->own);
        return;
    }
    *mask = (g4_token_set) { .sets = { m->sets[0], m->sets[1] },
                             .own = m->own,
                             .bytes = bytes + own,
                             .n_sets = m->n_sets,
                             .n_ids = g->allowed.n };
    if (g->allowed.n > 0) memcpy(mask->ids, g->allowed.ids, (size_t)g->allowed.n * sizeof *g->allowed.ids);
    g->mask_bytes += mask->bytes;
    g->states[state]->mask = mask;
}

static void g4_mask_forget(g4_grammar *g, g4_grammar_state *s)
{
    if (s->mask == NULL) return;
    g->mask_bytes -= s->mask->bytes;
    g4_free(g->a, s->mask->own);
    g4_free(g->a, s->mask);
    s->mask = NULL;
}

static void g4_state_free(g4_grammar *g, g4_grammar_state *s)
{
    g4_mask_forget(g, s);
    g4_free(g->a, s);
}

/* Free n of the states that were forgotten: all at once would be felt. */
static void g4_states_bury(g4_grammar *g, int n)
{
    for (; n > 0 && g->n_dead > 0; n--) g4_state_free(g, g->dead[--g->n_dead]);
}

static void g4_mask_make(g4_grammar *g, int32_t state)
{
    g4_mask_parts m = { .n_sets = 0 };
    uint32_t all[8];
    int n, is_wide = 0;
    g4_grammar_begin_work(g);
    g->allowed.n = 0;
    g4_ahead_place *places = g4_mask_places(g, g->states[state], &n);
    for (int i = 0, end; i < n && !g4_grammar_stops(g); i = end) {
        for (end = i + 1; end < n && g4_ahead_place_compare(&places[end], &places[i]) == 0; end++) {
        }
        g4_mask_add_places(g, &m, state, places + i, end - i, &is_wide);
        g4_mask_parts_flush(g, &m);
    }
    g4_free(g->a, places);
    memset(all, 0xff, sizeof all);
    for (int i = 0; i < 2 && is_wide && !g->failed; i++) {
        g4_grammar_walk(g, &g->vocabulary->tries[i], 0, state, all, NULL);
        g4_mask_parts_flush(g, &m);
    }
    if (g->failed) {
        g4_free(g->a, m.own);
        return;
    }
    if (g->mask_bytes > G4_MAX_MASK_BYTES) {
        g4_states_bury(g, g->n_dead);
        for (int i = 1; i < g->n_states; i++) g4_mask_forget(g, g->states[i]);
    }
    g4_mask_keep(g, state, &m);
}

int g4_grammar_write_mask(g4_grammar *g, int32_t state, uint32_t *mask)
{
    const size_t n = g4_mask_words((int)g->t->n_vocab);
    if (g->states[state]->mask == NULL) g4_mask_make(g, state);
    const g4_token_set *s = g->states[state]->mask;
    if (g->failed || s == NULL) return 0;
    const uint32_t *first = s->own != NULL ? s->own : s->n_sets > 0 ? s->sets[0] : NULL;
    if (first != NULL)
        memcpy(mask, first, n * sizeof *mask);
    else
        memset(mask, 0, n * sizeof *mask);
    for (int k = s->own == NULL; k < s->n_sets; k++)
        for (size_t i = 0; i < n; i++) mask[i] |= s->sets[k][i];
    for (int i = 0; i < s->n_ids; i++) g4_mask_set(mask, s->ids[i]);
    return 1;
}

const uint32_t *g4_grammar_mask(g4_grammar *g, int32_t state)
{
    return g4_grammar_write_mask(g, state, g->written) ? g->written : NULL;
}

/* ---- Forgetting ---------------------------------------------------------------------------------- */

/* What was found out about lexemes, whose expressions get new numbers. */
static void g4_lexemes_forget(g4_grammar *g)
{
    g4_arena_free(&g->ahead_memory);
    g->ahead_memory = (g4_arena) { .a = g->a };
    g->ahead_bytes = 0;
    g->n_aheads = 0;
    g->n_bodies = 0;
    g->plain = G4_RE_NONE;
    g4_table_clear(&g->ahead_table);
    g4_lexer_forget(g);
}

/* All sets of stacks but those of a state, which get new numbers, in `map`, which has room for all. */
static void g4_stacks_forget(g4_grammar *g, g4_grammar_state *kept, int32_t *map)
{
    int n = 0;
    memset(map, 0, (size_t)g->n_stacks * sizeof *map);
    map[G4_STACK_BOTTOM] = 1;
    for (int i = 0; i < kept->n; i++) map[kept->places[i].stack] = 1;
    for (int i = g->n_stacks - 1; i >= 0; i--) /* what is below has a lower number */
        for (int k = 0; k < g->stacks[i].n && map[i]; k++) {
            const g4_frame f = g->frames[g->stacks[i].first + k];
            if (f.node >= 0) map[f.below] = 1;
        }
    g->n_frames = 0;
    for (int i = 0; i < g->n_stacks; i++) {
        if (!map[i]) continue;
        g4_stack_set s = g->stacks[i];
        for (int k = 0; k < s.n; k++) {
            g4_frame f = g->frames[s.first + k];
            if (f.node >= 0) f.below = map[f.below];
            g->frames[g->n_frames + k] = f;
        }
        s.first = g->n_frames;
        g->n_frames += s.n;
        g->stacks[n] = s;
        map[i] = n++;
    }
    g->n_stacks = n;
    for (int i = 0; i < kept->n; i++) kept->places[i].stack = map[kept->places[i].stack];
    memset(g->memo, -1, G4_N_UNIONS * sizeof *g->memo);
}

/* The expressions that steps made, but those of a state and of frames, which get new numbers in the same order; `keep`
 * has room for them. */
static void g4_steps_forget(g4_grammar *g, g4_grammar_state *kept, g4_re *keep)
{
    int n = 0;
    for (int i = 0; i < kept->n; i++)
        if (kept->places[i].re > 0) keep[n++] = kept->places[i].re;
    for (int i = 0; i < g->n_frames; i++) keep[n++] = g->frames[i].used;
    g4_regular_forget(g->net.regular, g->n_given, keep, n);
    n = 0;
    for (int i = 0; i < kept->n; i++)
        if (kept->places[i].re > 0) kept->places[i].re = keep[n++];
    for (int i = 0; i < g->n_frames; i++) g->frames[i].used = keep[n++];
    g4_lexemes_forget(g);
}

/* Number the sets of stacks that are left by what they have become. */
static void g4_stacks_hash(g4_grammar *g)
{
    g4_table_clear(&g->stack_table);
    for (int i = 0; i < g->n_stacks; i++) {
        uint64_t h = 1;
        for (int k = 0; k < g->stacks[i].n; k++) h = g4_mix_frame(h, &g->frames[g->stacks[i].first + k]);
        g->stacks[i].hash = (uint32_t)h;
        g4_table_put(&g->stack_table, g->stacks[i].hash, i);
    }
}

/* The texts of items but those of a state, which get new numbers; `map` has room for all. */
static void g4_items_forget(g4_grammar *g, g4_grammar_state *kept, int32_t *map)
{
    int n = G4_ITEM_BEGINS + 1;
    memset(map, 0, (size_t)g->n_texts * sizeof *map);
    for (int i = 0; i < kept->n; i++) map[kept->places[i].text] = 1;
    for (int i = g->n_texts - 1; i > G4_ITEM_BEGINS; i--)
        if (map[i]) map[g->texts[i].before] = 1;
    map[0] = 0;
    map[G4_ITEM_BEGINS] = G4_ITEM_BEGINS;
    for (int i = n; i < g->n_texts; i++) {
        if (!map[i]) continue;
        g->texts[n] = (g4_item_text) { map[g->texts[i].before], g->texts[i].byte };
        map[i] = n++;
    }
    g->n_texts = n;
    for (int i = 0; i < kept->n; i++) kept->places[i].text = map[kept->places[i].text];
}

int32_t g4_grammar_forget(g4_grammar *g, int32_t state)
{
    g4_grammar_state *kept = g->states[state];
    const size_t room =
        (size_t)g4_max_int(g4_max_int(g->n_stacks, g->n_texts), g->n_frames + (kept != NULL ? kept->n : 0)) + 1;
    int32_t *map = state != 0 && !g->failed ? g4_alloc(g->a, room, sizeof *map) : NULL;
    if (map == NULL) return state; /* later */
    g4_states_bury(g, g->n_dead);
    if (g->n_states > g->cap_dead) {
        g4_grammar_state **dead = g4_realloc(g->a, g->dead, (size_t)g->cap_states, sizeof(g4_grammar_state *));
        if (dead == NULL) {
            g4_free(g->a, map);
            return state;
        }
        g->dead = dead;
        g->cap_dead = g->cap_states;
    }
    for (int i = 1; i < g->n_states; i++)
        if (i != state) g->dead[g->n_dead++] = g->states[i];
    g4_mask_forget(g, kept);
    g4_stacks_forget(g, kept, map);
    g4_steps_forget(g, kept, map);
    g4_stacks_hash(g);
    g4_items_forget(g, kept, map);
    g4_free(g->a, map);
    g->max_stacks = g4_max_int(G4_MAX_STACKS, 2 * g->n_stacks);
    g->max_given = g4_max_int(g->n_given + G4_MAX_STEPS, 2 * g4_regular_size(g->net.regular));
    qsort(kept->places, (size_t)kept->n, sizeof *kept->places, g4_place_compare);
    kept->hash = g4_state_hash(kept->places, kept->n, kept->accepts);
    memset(kept->next, -1, sizeof kept->next);
    g->states[1] = kept;
    g->n_states = 2;
    g->generation++;
    g4_table_clear(&g->state_table);
    g4_table_put(&g->state_table, kept->hash, 1);
    return 1;
}

int32_t g4_grammar_settle(g4_grammar *g, int32_t state)
{
    const int is_full = g->n_states >= G4_MAX_STATES || g->n_stacks >= g->max_stacks ||
                        g->ahead_bytes > G4_MAX_AHEAD_BYTES || g->n_texts > G4_MAX_TEXTS ||
                        g4_regular_size(g->net.regular) >= g->max_given;
    g4_states_bury(g, G4_BURY);
    return is_full ? g4_grammar_forget(g, state) : state;
}

/* ---- The grammar --------------------------------------------------------------------------------- */

g4_status g4_grammar_enter(g4_grammar *g, g4_halt *halt, g4_error *err)
{
    if (atomic_exchange(&g->busy, 1))
        return g4_fail(err, G4_ERR_ARGUMENT, "this grammar serves another thread's answer: it serves one at a time");
    g->failed = G4_OK;
    g->asker = (g4_asker) { .halt = halt };
    g4_regular_recover(g->net.regular, halt);
    return G4_OK;
}

g4_status g4_grammar_leave(g4_grammar *g, g4_error *err)
{
    const g4_status st = g->failed;
    const int32_t r = g->failed_rule;
    g4_halt *halt = g->asker.halt;
    g->failed = G4_OK;
    g->failed_rule = -1;
    g->asker = (g4_asker) { 0 };
    g4_regular_recover(g->net.regular, NULL);
    atomic_store(&g->busy, 0);
    if (st == G4_ERR_CANCELED) return g4_halt_check(halt, err);
    if (st == G4_ERR_UNSUPPORTED) {
        const int is_named = r >= 0 && g->net.rules[r].name != NULL, is_slow = g->work_left < 0;
        return g4_fail(err, st, "the grammar takes too much work: more than %d %s%s%.*s",
                       is_slow ? G4_MAX_WORK : G4_MAX_PLACES, is_slow ? "steps for one token" : "places at once",
                       is_named ? " in rule " : "", is_named ? (int)g->net.rules[r].name_len : 0,
                       is_named ? g->net.rules[r].name : "");
    }
    return st == G4_OK ? G4_OK : g4_fail(err, st, "no memory for the token masks");
}

int g4_grammar_accepts(const g4_grammar *g, int32_t state) { return state > 0 && g->states[state]->accepts; }
int g4_grammar_failed(const g4_grammar *g) { return g->failed != G4_OK; }
uint32_t g4_grammar_generation(const g4_grammar *g) { return g->generation; }
uint32_t g4_grammar_n_vocab(const g4_grammar *g) { return g->t->n_vocab; }

int32_t g4_grammar_start(g4_grammar *g)
{
    g4_grammar_begin_work(g);
    g4_closure_begin(g);
    g4_closure_add(g, g->net.start, G4_STACK_BOTTOM);
    return g->failed ? 0 : g4_closure_end(g);
}

int32_t g4_grammar_read(g4_grammar *g, int32_t state, g4_token token)
{
    g4_grammar_begin_work(g);
    return g4_grammar_step_token(g, state, token);
}

void g4_grammar_count(const g4_grammar *g, g4_grammar_counts *out)
{
    *out = (g4_grammar_counts) { .states = g->n_states - 1,
                                 .stacks = g->n_stacks,
                                 .expressions = g4_regular_size(g->net.regular),
                                 .nodes = g->net.n_nodes,
                                 .visited = g->n_visited,
                                 .work = g->n_worked + (uint64_t)(G4_MAX_WORK - g->work_left) };
}

void g4_grammar_close(g4_grammar *g)
{
    if (g == NULL || atomic_load(&g->busy)) return;
    const g4_allocator *a = g->a;
    for (int i = 1; i < g->n_states; i++) g4_state_free(g, g->states[i]);
    g4_states_bury(g, g->n_dead);
    g4_net_free(&g->net);
    if (g->owns_vocabulary) g4_vocabulary_close(g->vocabulary);
    g4_arena_free(&g->ahead_memory);
    g4_arena_free(&g->row_memory);
    void *const blocks[] = { g->texts,
                             g->dead,
                             g->frames,
                             g->stacks,
                             g->stack_table.slots,
                             g->unions,
                             g->collected,
                             g->memo,
                             g->states,
                             g->state_table.slots,
                             g->work,
                             g->marks,
                             g->queue,
                             g->core,
                             g->lexer,
                             g->lexer_table.slots,
                             g->divisions,
                             g->division_table.slots,
                             g->moves,
                             g->targets,
                             g->reaches,
                             g->aheads,
                             g->ahead_table.slots,
                             g->inside,
                             g->allowed.ids,
                             g->doubtful.ids,
                             g->marked,
                             g->completions,
                             g->words,
                             g->written };
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) g4_free(a, blocks[i]);
    g4_free(a, g);
}

g4_status g4_grammar_check(g4_grammar **out, const g4_engine *e, const char *text, const char *what,
                           const g4_limits *limits, g4_halt *halt, g4_error *err)
{
    if (out == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    const g4_status st = g4_engine_check(e, err);
    if (st != G4_OK) return st;
    if (text == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "%s is NULL", what);
    g4_halt_add(g4_engine_halt(e, halt), limits);
    return g4_halt_check(halt, err);
}

g4_status g4_grammar_new(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t, g4_halt *halt, g4_error *err)
{
    g4_grammar *g = g4_alloc(a, 1, sizeof *g);
    *out = g;
    if (g != NULL) {
        g->a = g->net.a = g->ahead_memory.a = g->row_memory.a = a;
        g->net.asker.halt = halt;
        g->t = t;
        g->n_lexer = g->n_states = 1;
        g->failed_rule = -1;
        g4_controls_bind(&g->controls, t);
        g->vocabulary = g4_vocabulary_of(t, a, halt, &g->owns_vocabulary);
        g->net.regular = g4_regular_open(a, halt);
        if (g->vocabulary != NULL && g->net.regular != NULL) return G4_OK;
        g4_grammar_close(g);
        *out = NULL;
    }
    return g4_fail_short(halt, err, "no memory for a grammar");
}

g4_net *g4_grammar_net(g4_grammar *g) { return &g->net; }

/* What is there from the beginning: room for one state and one lexer's state that mean nothing, and the empty stack. */
static int g4_grammar_begin(g4_grammar *g)
{
    const size_t n = g4_mask_words((int)g->t->n_vocab);
    const g4_frame bottom = { -1, G4_RE_NONE, 0 };
    g->cap_states = g->cap_lexer = g->cap_texts = 16;
    g->n_texts = G4_ITEM_BEGINS + 1;
    g->texts = g4_alloc(g->a, (size_t)g->cap_texts, sizeof *g->texts);
    g->states = g4_alloc(g->a, (size_t)g->cap_states, sizeof(g4_grammar_state *));
    g->lexer = g4_alloc(g->a, (size_t)g->cap_lexer, sizeof *g->lexer);
    g->reaches = g4_alloc(g->a, G4_N_REACHES, sizeof *g->reaches);
    g->marks = g4_alloc(g->a, (size_t)g->net.n_nodes, sizeof *g->marks);
    g->memo = g4_alloc(g->a, G4_N_UNIONS, sizeof *g->memo);
    g->marked = g4_alloc(g->a, n, sizeof *g->marked);
    g->written = g4_alloc(g->a, n, sizeof *g->written);
    if (g->states == NULL || g->lexer == NULL || g->reaches == NULL || g->texts == NULL || g->marks == NULL ||
        g->memo == NULL || g->marked == NULL || g->written == NULL)
        return 0;
    memset(g->memo, -1, G4_N_UNIONS * sizeof *g->memo);
    g4_stack_of(g, &bottom, 1);
    g->n_given = g4_regular_size(g->net.regular);
    g->max_given = g->n_given + G4_MAX_STEPS;
    g->max_stacks = G4_MAX_STACKS;
    g->work_left = G4_MAX_WORK;
    return g->failed == G4_OK;
}

g4_status g4_grammar_finish(g4_grammar **out, g4_grammar *g, g4_status st, const char *what, g4_error *err)
{
    *out = NULL;
    if (st == G4_OK) st = g4_net_finish(&g->net, what, err);
    if (st == G4_OK && !g4_grammar_begin(g)) st = g4_fail(err, G4_ERR_MEMORY, "%s: no memory for the grammar", what);
    if (st == G4_OK) {
        g4_regular_recover(g->net.regular, NULL);
        *out = g;
    } else {
        g4_grammar_close(g);
    }
    return st;
}
