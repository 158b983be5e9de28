/* regular.c - regular languages of bytes as expressions, with `and` and `not` among their operators. Equal expressions
 * share one number, in a normal form that makes few of those equal in meaning differ, so that a number is also the
 * state of an automaton that nobody builds as a whole: what may follow after a byte, the derivative, is another
 * expression, made when somebody asks. A repeat keeps its counts as numbers, and a step lowers them, so that a
 * thousand characters cost what one costs. Whether an expression with `and` or `not` has any text at all is found by
 * walking through its derivatives, and remembered. Nothing here recurses over its input. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <string.h>

#define G4_RE_MAX_NODES 1000000        /* expressions of a set */
#define G4_RE_MAX_LISTED 8000000       /* operands of all `or` and `and` together */
#define G4_RE_MAX_ROW_BYTES (8u << 20) /* of remembered steps: more, and all are forgotten */
#define G4_RE_MAX_SEARCH 20000         /* expressions that a search for a text looks at */
#define G4_RE_MAX_SEARCHES 40000       /* all searches of one call together, */
#define G4_RE_SMALL_SEARCH 100         /* but for those that come to an end so soon */
#define G4_RE_CLASSES 64
#define G4_RE_N_PRODUCTS 1024     /* of divisions, that are remembered */
#define G4_RE_MERGED_CLASSES 20   /* the same of divisions with so many classes of which some become one */
#define G4_RE_N_MADE 2048         /* derivatives that are found by what they are made of, */
#define G4_RE_MAX_MADE 16         /* so many expressions */
#define G4_RE_MAX_WIDE 2048       /* operands of `or` and `and` beyond which no step may make more of them */
#define G4_RE_SEARCH_WIDTH 2      /* operands that count as one more expression in a search */
#define G4_RE_MAX_SPREAD 256      /* alternatives of `and` */
#define G4_RE_MAX_LIMITED 4       /* operands of `and` of which one may be a limit */
#define G4_RE_FAR (1 << 28)       /* a reach that is not known, or further */
#define G4_RE_MAX_COUNT (1 << 29) /* counts beyond are not added up */

typedef enum {
    G4_RK_NONE,
    G4_RK_EMPTY,
    G4_RK_SET,
    G4_RK_MULTIPLE,
    G4_RK_CONCAT,
    G4_RK_OR,
    G4_RK_AND,
    G4_RK_NOT,
    G4_RK_REPEAT,
    G4_RK_LATER
} g4_re_kind;

enum { G4_HAS_AND = 1 /* or `not` */, G4_HAS_LATER = 2 };

/* Has it a text? A search that was not finished within its limit is not begun again. */
enum { G4_LIFE_UNKNOWN, G4_LIFE_LIVE, G4_LIFE_DEAD, G4_LIFE_UNDECIDED };

typedef struct {                        /* a division of the bytes into n classes; equal ones are one */
    uint8_t class_of[256], sample[256]; /* sample: the first byte of a class */
    int n;
} g4_division;
typedef struct {
    const g4_division *a, *b, *both;
} g4_division_pair;
typedef struct { /* a division whose class i becomes class becomes[i] of another */
    const g4_division *from, *to;
    uint8_t becomes[G4_RE_MERGED_CLASSES];
} g4_division_merger;

typedef struct {             /* what was made of these, as CONCAT, OR or AND */
    const int32_t *operands; /* (n), among the rows */
    int32_t n;
    g4_re re;
    uint8_t kind;
} g4_re_made;

typedef struct {  /* the steps of an expression */
    int n;        /* classes of bytes that lead to the same */
    int is_clean; /* those without a text are NONE */
    const g4_division *division;
    g4_re to[]; /* (n) */
} g4_re_steps;

typedef struct {
    int32_t a, b;     /* operands; OR, AND: place and length of the list; SET: place of the set; MULTIPLE: modulus,
                          places; LATER: place of what it stands for */
    int32_t min, max; /* REPEAT; max < 0: no end. MULTIPLE: residue, phase. LATER: min says whether it
                          accepts the empty text. AND: min is 1 for g4_re_agree */
    int32_t count;    /* the highest count in it outside of NOT */
    int32_t shortest; /* bytes of its shortest text, at most; AND and NOT: 0 */
    int32_t guess;    /* the same, of AND the most of its operands: what a search for a text goes by */
    int32_t reach;    /* of what may follow whatever has been read, the shortest text has at most so many bytes */
    int32_t clamped;  /* g4_re_clamp of it, and 1; 0: not made */
    uint32_t hash, seen;
    uint64_t print[2];  /* the same in every set of expressions */
    g4_re_steps *steps; /* NULL: not made, or forgotten */
    uint8_t kind, accepts, is_checked /* what is in it */, life, is_endless;
    uint8_t fits; /* bits by spelling: its texts are characters so spelled */
    uint8_t kept; /* where it may stand among the steps that are kept */
} g4_re_node;

typedef struct {
    uint32_t bits[8];
} g4_byte_set;

typedef struct { /* an operand of OR, as a repeat and what follows it */
    g4_re whole, body, tail;
    int32_t min, max;
    int is_changed;
} g4_re_part;

typedef struct {
    uint64_t print[2];
    g4_re re;
} g4_made_class;

struct g4_regular {
    const g4_allocator *a;
    g4_asker asker;
    g4_net_failure failed;
    g4_re_node *nodes;
    g4_byte_set *sets;
    int32_t *lists; /* operands of OR and AND */
    int n_nodes, cap_nodes, n_sets, cap_sets, n_lists, cap_lists;
    g4_hash_table table, set_table; /* of nodes; of sets */
    int32_t *stack;                 /* work of the functions below, each above what its caller left there */
    int top, cap_stack;
    g4_re_part *parts;
    int cap_parts;
    g4_arena rows; /* steps, and how they divide the bytes into classes */
    size_t row_bytes;
    const g4_division **divisions; /* (n_divisions) */
    int n_divisions, cap_divisions;
    g4_hash_table division_table;
    g4_division_pair products[G4_RE_N_PRODUCTS];
    g4_division_merger merged[G4_RE_N_PRODUCTS];
    g4_re_made made[G4_RE_N_MADE];
    uint32_t seen;   /* of the last search */
    int search_left; /* of G4_RE_MAX_SEARCHES */
    int longest;     /* of g4_re_clamp */
    g4_re *later;    /* what the expressions stand for that were defined later */
    int n_later, cap_later;
    int32_t defined;                      /* expressions from here on are in none of them */
    g4_re any_char[2];                    /* one character, by spelling, escaped in all ways; 0: not made */
    g4_re any_text[2], no_text[2];        /* any characters, by spelling, and its complement; 0: not made */
    g4_made_class classes[G4_RE_CLASSES]; /* the last ones made, by their prints */
    g4_re row[256];
};

/* ---- Memory and failure -------------------------------------------------------------------------- */

static int g4_re_stops(g4_regular *r)
{
    if (!r->failed && g4_ask(&r->asker)) r->failed = G4_NET_HALTED;
    return r->failed != G4_NET_FINE;
}

void g4_regular_fail(g4_regular *r, g4_net_failure why)
{
    if (!r->failed) r->failed = why;
}

static void g4_re_push(g4_regular *r, int32_t value)
{
    int32_t *stack = r->stack; /* mostly there is room */
    if (r->failed)
        stack = NULL;
    else if (r->top >= r->cap_stack)
        stack = g4_array_grow(r->a, r->stack, r->top, &r->cap_stack, sizeof *stack);
    if (stack == NULL) {
        g4_regular_fail(r, G4_NET_NO_MEMORY);
        return;
    }
    r->stack = stack;
    stack[r->top++] = value;
}

/* Forget all steps that were made. */
static void g4_re_forget_steps(g4_regular *r)
{
    for (int i = 0; i < r->n_nodes; i++) r->nodes[i].steps = NULL;
    g4_arena_free(&r->rows);
    r->rows = (g4_arena) { .a = r->a };
    r->row_bytes = 0;
    r->n_divisions = 0;
    g4_table_clear(&r->division_table);
    memset(r->products, 0, sizeof r->products);
    memset(r->merged, 0, sizeof r->merged);
    memset(r->made, 0, sizeof r->made);
}

/* ---- Equal expressions are one ------------------------------------------------------------------- */

static int g4_re_is_same(const g4_regular *r, const g4_re_node *x, const g4_re_node *y, const int32_t *list)
{
    if (x->hash != y->hash || x->kind != y->kind || x->b != y->b || x->min != y->min || x->max != y->max) return 0;
    if (y->kind == G4_RK_OR || y->kind == G4_RK_AND)
        return list != NULL && memcmp(r->lists + x->a, list, (size_t)y->b * sizeof *list) == 0;
    return x->a == y->a;
}

/* Phases of a multiple that is written; G4_IN_FRACTION + 1 and on: behind so many digits of the fraction. */
enum { G4_AT_START, G4_BEHIND_SIGN, G4_BEHIND_ZERO, G4_IN_WHOLE, G4_IN_FRACTION };

/* What is missing to a multiple when the residue moves up by the places that are left. *left: how many those are. */
static int64_t g4_re_multiple_missing(const g4_re_node *x, int *left)
{
    const int behind = x->max > G4_IN_FRACTION ? x->max - G4_IN_FRACTION : 0;
    int64_t residue = x->min;
    *left = x->b > behind ? x->b - behind : 0;
    for (int i = 0; i < *left; i++) residue = residue * 10 % x->a;
    return (x->a - residue) % x->a;
}

static int g4_re_multiple_accepts(const g4_re_node *x)
{
    int left;
    if (x->max == G4_AT_START || x->max == G4_BEHIND_SIGN || x->max == G4_IN_FRACTION) return 0;
    return x->max == G4_BEHIND_ZERO || g4_re_multiple_missing(x, &left) == 0;
}

static int32_t g4_re_far(int64_t n) { return n < G4_RE_FAR ? (int32_t)n : G4_RE_FAR; }

/* What a node has of its operands: whether it accepts the empty text, whether it has a text, its highest count. */
static void g4_re_describe(const g4_regular *r, g4_re_node *x, const int32_t *list)
{
    const int has_operand = x->kind >= G4_RK_CONCAT && x->kind != G4_RK_LATER;
    const g4_re_node *a = has_operand ? &r->nodes[x->a] : NULL, *b = NULL;
    int some = 0, all = 1;
    switch ((g4_re_kind)x->kind) {
    case G4_RK_NONE: x->life = G4_LIFE_DEAD; return;
    case G4_RK_EMPTY:
        x->accepts = 1;
        x->fits = 1 << G4_RAW | 1 << G4_ESCAPED;
        break;
    case G4_RK_SET:
        x->life = G4_LIFE_LIVE;
        x->shortest = x->guess = x->reach = 1;
        return;
    case G4_RK_MULTIPLE:
        x->reach = G4_RE_FAR;
        x->accepts = (uint8_t)g4_re_multiple_accepts(x);
        break;
    case G4_RK_CONCAT:
        b = &r->nodes[x->b];
        x->accepts = a->accepts && b->accepts;
        x->is_checked = a->is_checked | b->is_checked;
        x->count = a->count > b->count ? a->count : b->count;
        x->fits = a->fits & b->fits;
        x->shortest = g4_re_far((int64_t)a->shortest + b->shortest);
        x->guess = g4_re_far((int64_t)a->guess + b->guess);
        x->reach = g4_max_int(g4_re_far((int64_t)a->reach + b->shortest), b->reach);
        break;
    case G4_RK_REPEAT:
        x->accepts = x->min == 0 || a->accepts;
        x->is_checked = a->is_checked;
        x->count = g4_max_int(a->count, g4_max_int(x->min, x->max));
        x->fits = a->fits;
        x->shortest = g4_re_far((int64_t)a->shortest * x->min);
        x->guess = g4_re_far((int64_t)a->guess * x->min);
        x->reach = g4_re_far(a->reach + (int64_t)a->shortest * g4_max_int(x->min - 1, 0));
        break;
    case G4_RK_LATER:
        x->reach = G4_RE_FAR;
        x->accepts = (uint8_t)x->min;
        x->is_checked = G4_HAS_AND | G4_HAS_LATER;
        break;
    case G4_RK_NOT:
        x->reach = x->a != G4_RE_NONE ? G4_RE_FAR : 0;
        x->accepts = !a->accepts;
        x->is_checked = x->a != G4_RE_NONE ? G4_HAS_AND | a->is_checked : 0;
        break;
    case G4_RK_OR:
    case G4_RK_AND:
        for (int i = 0; i < x->b; i++) {
            const g4_re_node *k = &r->nodes[list[i]];
            some |= k->accepts;
            all &= k->accepts;
            x->is_checked |= k->is_checked;
            x->count = g4_max_int(x->count, k->count);
            x->fits = i == 0 ? k->fits : x->kind == G4_RK_OR ? x->fits & k->fits : x->fits | k->fits;
            x->reach = x->kind == G4_RK_OR ? g4_max_int(x->reach, k->reach) : G4_RE_FAR;
            if (x->kind == G4_RK_OR && (i == 0 || k->shortest < x->shortest)) x->shortest = k->shortest;
            if (i == 0 || (x->kind == G4_RK_OR ? k->guess < x->guess : k->guess > x->guess)) x->guess = k->guess;
        }
        x->accepts = (uint8_t)(x->kind == G4_RK_OR ? some : all);
        if (x->kind == G4_RK_AND && x->min == 0) x->is_checked |= G4_HAS_AND;
        break;
    }
    if (x->accepts || !x->is_checked) x->life = G4_LIFE_LIVE;
}

/* list: the operands of OR and AND, else NULL. */
static uint32_t g4_re_hash(const g4_re_node *x, const int32_t *list)
{
    uint64_t h = g4_hash_mix(x->kind, (uint32_t)x->b);
    h = g4_hash_mix(h, (uint64_t)(uint32_t)x->min << 32 | (uint32_t)x->max);
    if (list == NULL) h = g4_hash_mix(h, (uint32_t)x->a);
    for (int i = 0; list != NULL && i < x->b; i++) h = g4_hash_mix(h, (uint32_t)list[i]);
    return (uint32_t)h;
}

/* May it have texts without end? */
static uint8_t g4_re_may_go_on(const g4_regular *r, const g4_re_node *x, const int32_t *list)
{
    int is_endless =
        x->kind == G4_RK_AND || x->kind == G4_RK_NOT || x->kind == G4_RK_LATER || x->kind == G4_RK_MULTIPLE;
    if (x->kind == G4_RK_CONCAT) is_endless = r->nodes[x->a].is_endless || r->nodes[x->b].is_endless;
    if (x->kind == G4_RK_REPEAT) is_endless = x->max < 0 || r->nodes[x->a].is_endless;
    for (int i = 0; x->kind == G4_RK_OR && i < x->b; i++) is_endless |= r->nodes[list[i]].is_endless;
    return (uint8_t)is_endless;
}

/* What tells an expression from others wherever it is made: the order of operands is not part of it. */
static void g4_re_sign(const g4_regular *r, g4_re_node *x, const int32_t *list)
{
    for (int k = 0; k < 2; k++) {
        uint64_t h = g4_hash_mix(0x9e3779b97f4a7c15u * (uint64_t)(k + 1), x->kind), sum = 0;
        h = g4_hash_mix(h, (uint64_t)(uint32_t)x->min << 32 | (uint32_t)x->max);
        if (x->kind == G4_RK_MULTIPLE) h = g4_hash_mix(h, (uint64_t)(uint32_t)x->a << 32 | (uint32_t)x->b);
        if (x->kind == G4_RK_SET)
            for (int i = 0; i < 8; i++) h = g4_hash_mix(h, r->sets[x->a].bits[i]);
        if (x->kind == G4_RK_OR || x->kind == G4_RK_AND)
            for (int i = 0; i < x->b; i++) sum += g4_hash_mix(r->nodes[list[i]].print[k], 1);
        else if (x->kind == G4_RK_LATER)
            sum = x->print[k];
        else if (x->kind > G4_RK_MULTIPLE)
            sum = r->nodes[x->a].print[k];
        h = g4_hash_mix(h, sum);
        x->print[k] = x->kind == G4_RK_CONCAT ? g4_hash_mix(h, r->nodes[x->b].print[k]) : h;
    }
}

/* The number of an expression; a list of operands is copied. */
static g4_re g4_re_intern(g4_regular *r, g4_re_node x, const int32_t *list)
{
    const int n_listed = x.kind == G4_RK_OR || x.kind == G4_RK_AND ? x.b : 0;
    if (g4_re_stops(r)) return G4_RE_NONE;
    x.hash = g4_re_hash(&x, list);
    uint32_t at = 0;
    for (int32_t i; (i = g4_table_next(&r->table, x.hash, &at)) >= 0;)
        if (g4_re_is_same(r, &r->nodes[i], &x, list)) return i;
    if (r->n_nodes >= G4_RE_MAX_NODES || r->n_lists + n_listed > G4_RE_MAX_LISTED) {
        g4_regular_fail(r, G4_NET_TOO_LARGE);
        return G4_RE_NONE;
    }
    g4_re_describe(r, &x, list);
    g4_re_sign(r, &x, list);
    x.is_endless = g4_re_may_go_on(r, &x, list);
    if (n_listed > 0) x.a = r->n_lists;
    for (int i = 0; i < n_listed; i++) {
        int32_t *lists = g4_array_grow(r->a, r->lists, r->n_lists, &r->cap_lists, sizeof *lists);
        if (lists == NULL) {
            r->n_lists = x.a;
            g4_regular_fail(r, G4_NET_NO_MEMORY);
            return G4_RE_NONE;
        }
        r->lists = lists;
        lists[r->n_lists++] = list[i];
    }
    g4_re_node *nodes = g4_array_grow(r->a, r->nodes, r->n_nodes, &r->cap_nodes, sizeof *nodes);
    if (nodes != NULL) r->nodes = nodes;
    if (nodes == NULL || !g4_table_reserve(&r->table, r->a, r->n_nodes)) {
        if (n_listed > 0) r->n_lists = x.a;
        g4_regular_fail(r, G4_NET_NO_MEMORY);
        return G4_RE_NONE;
    }
    nodes[r->n_nodes] = x;
    g4_table_put(&r->table, x.hash, r->n_nodes);
    return r->n_nodes++;
}

/* The place of a set among those that are known; -1: it is not, and there is no memory for it. */
static int32_t g4_re_set_place(g4_regular *r, const uint32_t bytes[8])
{
    uint64_t h = 0;
    uint32_t at = 0;
    for (int i = 0; i < 8; i++) h = g4_hash_mix(h, bytes[i]);
    for (int32_t i; (i = g4_table_next(&r->set_table, (uint32_t)h, &at)) >= 0;)
        if (memcmp(r->sets[i].bits, bytes, sizeof(g4_byte_set)) == 0) return i;
    g4_byte_set *sets = g4_array_grow(r->a, r->sets, r->n_sets, &r->cap_sets, sizeof *sets);
    if (sets != NULL) r->sets = sets;
    if (sets == NULL || !g4_table_reserve(&r->set_table, r->a, r->n_sets)) return -1;
    memcpy(sets[r->n_sets].bits, bytes, sizeof(g4_byte_set));
    g4_table_put(&r->set_table, (uint32_t)h, r->n_sets);
    return r->n_sets++;
}

g4_re g4_re_set(g4_regular *r, const uint32_t bytes[8])
{
    uint32_t any = 0;
    for (int i = 0; i < 8; i++) any |= bytes[i];
    if (any == 0 || r->failed) return G4_RE_NONE;
    const int32_t place = g4_re_set_place(r, bytes);
    if (place < 0) {
        g4_regular_fail(r, G4_NET_NO_MEMORY);
        return G4_RE_NONE;
    }
    return g4_re_intern(r, (g4_re_node) { .kind = G4_RK_SET, .a = place }, NULL);
}

g4_regular *g4_regular_open(const g4_allocator *a, g4_halt *halt)
{
    g4_regular *r = g4_alloc(a, 1, sizeof *r);
    if (r == NULL) return NULL;
    r->a = r->rows.a = a;
    g4_re_intern(r, (g4_re_node) { .kind = G4_RK_NONE }, NULL);
    g4_re_intern(r, (g4_re_node) { .kind = G4_RK_EMPTY }, NULL);
    g4_re_intern(r, (g4_re_node) { .kind = G4_RK_NOT, .a = G4_RE_NONE }, NULL); /* G4_RE_ALL */
    if (r->failed) {
        g4_regular_close(r);
        return NULL;
    }
    r->asker.halt = halt;
    r->search_left = G4_RE_MAX_SEARCHES;
    return r;
}

void g4_regular_close(g4_regular *r)
{
    if (r == NULL) return;
    g4_arena_free(&r->rows);
    g4_free(r->a, r->nodes);
    g4_free(r->a, r->sets);
    g4_free(r->a, r->lists);
    g4_free(r->a, r->table.slots);
    g4_free(r->a, r->set_table.slots);
    g4_free(r->a, r->divisions);
    g4_free(r->a, r->division_table.slots);
    g4_free(r->a, r->stack);
    g4_free(r->a, r->parts);
    g4_free(r->a, r->later);
    g4_free(r->a, r);
}

g4_net_failure g4_regular_failed(const g4_regular *r) { return r->failed; }
const g4_allocator *g4_regular_allocator(const g4_regular *r) { return r->a; }
int g4_regular_stops(g4_regular *r) { return g4_re_stops(r); }

void g4_regular_recover(g4_regular *r, g4_halt *halt)
{
    r->failed = G4_NET_FINE;
    r->asker = (g4_asker) { .halt = halt };
    r->search_left = G4_RE_MAX_SEARCHES;
    r->top = 0;
    if (r->row_bytes > G4_RE_MAX_ROW_BYTES) g4_re_forget_steps(r);
}

int32_t g4_regular_size(const g4_regular *r) { return r->n_nodes; }

/* ---- Concatenation and repetition ---------------------------------------------------------------- */

/* What x is a repeat of; any other expression is one of itself. */
static g4_re g4_re_body(const g4_regular *r, g4_re x, int32_t *min, int32_t *max)
{
    const g4_re_node *k = &r->nodes[x];
    *min = k->kind == G4_RK_REPEAT ? k->min : 1;
    *max = k->kind == G4_RK_REPEAT ? k->max : 1;
    return k->kind == G4_RK_REPEAT ? k->a : x;
}

/* head, which is no concatenation, and tail. x{a,b} x{c,d} is x{a+c,b+d}. */
static g4_re g4_re_prepend(g4_regular *r, g4_re head, g4_re tail)
{
    const g4_re_node *t = &r->nodes[tail];
    const g4_re next = t->kind == G4_RK_CONCAT ? t->a : tail, rest = t->kind == G4_RK_CONCAT ? t->b : G4_RE_EMPTY;
    int32_t min, max, next_min, next_max;
    if (head == G4_RE_ALL && next == G4_RE_ALL) return tail;
    const g4_re body = g4_re_body(r, head, &min, &max), next_body = g4_re_body(r, next, &next_min, &next_max);
    const int is_repeat = r->nodes[head].kind == G4_RK_REPEAT || r->nodes[next].kind == G4_RK_REPEAT;
    if (is_repeat && body == next_body && min + next_min < G4_RE_MAX_COUNT && max + next_max < G4_RE_MAX_COUNT) {
        const int has_end = max >= 0 && next_max >= 0;
        head = g4_re_intern(r,
                            (g4_re_node) { .kind = G4_RK_REPEAT,
                                           .a = body,
                                           .min = r->nodes[body].accepts ? 0 : min + next_min,
                                           .max = has_end ? max + next_max : -1 },
                            NULL);
        tail = rest;
    }
    if (tail == G4_RE_EMPTY) return head;
    return g4_re_intern(r, (g4_re_node) { .kind = G4_RK_CONCAT, .a = head, .b = tail }, NULL);
}

g4_re g4_re_concat(g4_regular *r, g4_re a, g4_re b)
{
    if (r->failed || r->nodes[a].life == G4_LIFE_DEAD || r->nodes[b].life == G4_LIFE_DEAD) return G4_RE_NONE;
    if (a == G4_RE_EMPTY) return b;
    if (b == G4_RE_EMPTY) return a;
    const int base = r->top;
    const uint8_t fits = r->nodes[a].fits & r->nodes[b].fits; /* also where a is taken apart */
    while (r->nodes[a].kind == G4_RK_CONCAT && !r->failed) {
        g4_re_push(r, r->nodes[a].a);
        a = r->nodes[a].b;
    }
    b = g4_re_prepend(r, a, b);
    while (r->top > base && !r->failed) b = g4_re_prepend(r, r->stack[--r->top], b);
    r->top = base;
    if (r->failed) return G4_RE_NONE;
    r->nodes[b].fits |= fits;
    return b;
}

/* Are the counts of (x{a,b}){min,max} all that lie between the lowest and the highest of them? Those of k and of k + 1
 * times touch when k * b + 1 >= (k + 1) * a, which is hardest for the lowest k. */
static int g4_re_counts_join(int32_t a, int32_t b, int32_t min, int32_t max)
{
    if (max == min) return 1;
    if (min == 0) return a <= 1 && (max == 1 || b < 0 || b + 1 >= 2 * a);
    return b < 0 || (int64_t)min * b + 1 >= ((int64_t)min + 1) * a;
}

static g4_re g4_re_join(g4_regular *r, g4_re_kind kind, int base);

g4_re g4_re_repeat(g4_regular *r, g4_re a, int32_t min, int32_t max)
{
    if (r->failed) return G4_RE_NONE;
    if (max == 0 || a == G4_RE_EMPTY) return G4_RE_EMPTY;
    if (r->nodes[a].life == G4_LIFE_DEAD) return min == 0 ? G4_RE_EMPTY : G4_RE_NONE;
    if (min == 1 && max == 1) return a;
    if (r->nodes[a].accepts) min = 0;
    if (a == G4_RE_ALL) return a;
    if (r->nodes[a].kind == G4_RK_REPEAT) {
        const g4_re_node k = r->nodes[a];
        const int64_t low = (int64_t)k.min * min, high = k.max < 0 || max < 0 ? -1 : (int64_t)k.max * max;
        if (g4_re_counts_join(k.min, k.max, min, max) && low < G4_RE_MAX_COUNT && high < G4_RE_MAX_COUNT)
            return g4_re_repeat(r, k.a, (int32_t)low, (int32_t)high);
    }
    if (min == 0 && max == 1) {
        if (r->nodes[a].accepts) return a;
        if (r->nodes[a].kind == G4_RK_OR) return g4_re_or(r, a, G4_RE_EMPTY);
    }
    return g4_re_intern(r, (g4_re_node) { .kind = G4_RK_REPEAT, .a = a, .min = min, .max = max }, NULL);
}

g4_re g4_re_optional(g4_regular *r, g4_re a) { return g4_re_repeat(r, a, 0, 1); }

g4_re g4_re_not(g4_regular *r, g4_re a)
{
    if (r->failed) return G4_RE_NONE;
    if (r->nodes[a].life == G4_LIFE_DEAD) return G4_RE_ALL;
    if (r->nodes[a].kind == G4_RK_NOT) return r->nodes[a].a;
    return g4_re_intern(r, (g4_re_node) { .kind = G4_RK_NOT, .a = a }, NULL);
}

g4_re g4_re_later(g4_regular *r, int accepts, const uint64_t seed[2])
{
    if (r->failed) return G4_RE_NONE;
    g4_re *later = g4_array_grow(r->a, r->later, r->n_later, &r->cap_later, sizeof *later);
    if (later == NULL) {
        g4_regular_fail(r, G4_NET_NO_MEMORY);
        return G4_RE_NONE;
    }
    r->later = later;
    later[r->n_later] = G4_RE_NONE;
    const g4_re_node x = { .kind = G4_RK_LATER, .a = r->n_later++, .min = accepts, .print = { seed[0], seed[1] } };
    return g4_re_intern(r, x, NULL);
}

void g4_re_define(g4_regular *r, g4_re later, g4_re means)
{
    if (r->failed) return;
    r->later[r->nodes[later].a] = means;
    r->defined = r->n_nodes;
}

/* ---- Or, and ------------------------------------------------------------------------------------- */

/* Sort the numbers above base and leave out those that stand there twice. */
static void g4_re_sort(g4_regular *r, int base)
{
    int32_t *s = r->stack + base;
    const int n = r->top - base;
    int kept = 0;
    for (int gap = n / 2; gap > 0; gap = gap == 2 ? 1 : gap * 5 / 11)
        for (int i = gap; i < n; i++) {
            const int32_t x = s[i];
            int k = i;
            for (; k >= gap && s[k - gap] > x; k -= gap) s[k] = s[k - gap];
            s[k] = x;
        }
    for (int i = 0; i < n; i++)
        if (kept == 0 || s[i] != s[kept - 1]) s[kept++] = s[i];
    r->top = base + kept;
}

static int g4_re_has(const g4_regular *r, int base, g4_re x)
{
    for (int low = base, high = r->top; low < high;) {
        const int middle = low + (high - low) / 2;
        if (r->stack[middle] == x) return 1;
        if (r->stack[middle] < x)
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

/* Put in place of each operand of the same kind its operands, and for x? x and the empty text. Drops what does nothing;
 * returns 1 when one operand decides it all. */
static int g4_re_flatten(g4_regular *r, g4_re_kind kind, int base)
{
    const g4_re neutral = kind == G4_RK_OR ? G4_RE_NONE : G4_RE_ALL;
    int kept = base;
    for (int i = base; i < r->top && !r->failed; i++) {
        const g4_re x = r->stack[i];
        const g4_re_node k = r->nodes[x];
        if (kind == G4_RK_OR ? x == G4_RE_ALL : k.life == G4_LIFE_DEAD) return 1;
        if (x == neutral || k.life == G4_LIFE_DEAD) continue;
        if (k.kind == kind && k.min == 0) {
            for (int j = 0; j < k.b; j++) g4_re_push(r, r->lists[k.a + j]);
        } else if (kind == G4_RK_OR && k.kind == G4_RK_REPEAT && k.min == 0 && k.max == 1) {
            g4_re_push(r, k.a);
            g4_re_push(r, G4_RE_EMPTY);
        } else {
            r->stack[kept++] = x;
        }
    }
    r->top = kept;
    return 0;
}

static int g4_re_part_before(const g4_re_part *a, const g4_re_part *b)
{
    if (a->tail != b->tail) return a->tail < b->tail;
    if (a->body != b->body) return a->body < b->body;
    return a->min != b->min ? a->min < b->min : a->whole < b->whole;
}

static void g4_re_sort_parts(g4_re_part *s, int n)
{
    for (int gap = n / 2; gap > 0; gap = gap == 2 ? 1 : gap * 5 / 11)
        for (int i = gap; i < n; i++) {
            const g4_re_part x = s[i];
            int k = i;
            for (; k >= gap && g4_re_part_before(&x, &s[k - gap]); k -= gap) s[k] = s[k - gap];
            s[k] = x;
        }
}

/* x{a,b} t | x{c,d} t is x{a,d} t where the counts touch. Returns how many parts are left. */
static int g4_re_join_counts(g4_re_part *s, int n)
{
    int kept = 0;
    for (int i = 0; i < n; i++) {
        g4_re_part *last = kept > 0 ? &s[kept - 1] : NULL;
        if (last != NULL && last->tail == s[i].tail && last->body == s[i].body &&
            (last->max < 0 || s[i].min <= last->max + 1)) {
            if (last->max >= 0) last->max = s[i].max < 0 ? -1 : g4_max_int(last->max, s[i].max);
            last->is_changed = 1;
        } else {
            s[kept++] = s[i];
        }
    }
    return kept;
}

/* [a] t | [b] t is [ab] t. */
static int g4_re_join_sets(g4_regular *r, g4_re_part *s, int n)
{
    int kept = 0, last = -1;
    for (int i = 0; i < n; i++) {
        const int is_set = r->nodes[s[i].body].kind == G4_RK_SET && s[i].min == 1 && s[i].max == 1;
        if (is_set && last >= 0 && s[last].tail == s[i].tail) {
            g4_byte_set both = r->sets[r->nodes[s[last].body].a];
            for (int k = 0; k < 8; k++) both.bits[k] |= r->sets[r->nodes[s[i].body].a].bits[k];
            const uint8_t fits = r->nodes[s[last].body].fits & r->nodes[s[i].body].fits;
            s[last].body = g4_re_set(r, both.bits);
            if (!r->failed) r->nodes[s[last].body].fits |= fits;
            s[last].is_changed = 1;
            continue;
        }
        if (is_set) last = kept;
        s[kept++] = s[i];
    }
    return kept;
}

static g4_re g4_re_of_part(g4_regular *r, const g4_re_part *p)
{
    const g4_re_node repeat = { .kind = G4_RK_REPEAT, .a = p->body, .min = p->min, .max = p->max };
    if (!p->is_changed) return p->whole;
    if (p->min == 1 && p->max == 1) return g4_re_concat(r, p->body, p->tail);
    return g4_re_concat(r, g4_re_intern(r, repeat, NULL), p->tail);
}

/* Make one of the operands of OR above base, sorted, that differ only in how often they repeat, or in their first byte.
 */
static void g4_re_merge(g4_regular *r, int base)
{
    const int has_empty = g4_re_has(r, base, G4_RE_EMPTY);
    int n = 0, accepts = 0;
    for (int i = base; i < r->top; i++) {
        const g4_re x = r->stack[i];
        const g4_re_node *k = &r->nodes[x];
        if (x == G4_RE_EMPTY) continue;
        g4_re_part *parts = g4_array_grow(r->a, r->parts, n, &r->cap_parts, sizeof *parts);
        if (parts == NULL) {
            g4_regular_fail(r, G4_NET_NO_MEMORY);
            return;
        }
        r->parts = parts;
        g4_re_part part = { .whole = x, .tail = k->kind == G4_RK_CONCAT ? k->b : G4_RE_EMPTY };
        part.body = g4_re_body(r, k->kind == G4_RK_CONCAT ? k->a : x, &part.min, &part.max);
        accepts |= k->accepts;
        parts[n++] = part;
    }
    g4_re_sort_parts(r->parts, n);
    n = g4_re_join_sets(r, r->parts, g4_re_join_counts(r->parts, n));
    for (int i = 0; i < n && has_empty && !accepts; i++)
        if (r->parts[i].tail == G4_RE_EMPTY && r->parts[i].min == 1 && r->parts[i].max != 1) {
            r->parts[i].min = 0;
            r->parts[i].is_changed = accepts = 1;
        }
    r->top = base;
    if (n == 1 && has_empty && !accepts) { /* the only spelling of x? */
        g4_re_push(
            r, g4_re_intern(r, (g4_re_node) { .kind = G4_RK_REPEAT, .a = g4_re_of_part(r, r->parts), .max = 1 }, NULL));
        return;
    }
    if (has_empty && !accepts) g4_re_push(r, G4_RE_EMPTY);
    for (int i = 0; i < n && !r->failed; i++) g4_re_push(r, g4_re_of_part(r, &r->parts[i]));
    g4_re_sort(r, base);
}

/* Make one of all sets and one of all complements among the operands above base, sorted. Returns 1 when nothing is left
 * that they have in common. */
static int g4_re_intersect(g4_regular *r, int base)
{
    g4_byte_set both;
    int kept = base, n_sets = 0, n_nots = 0, accept = 1;
    memset(&both, 0xff, sizeof both);
    for (int i = base; i < r->top; i++) {
        const g4_re_node *k = &r->nodes[r->stack[i]];
        accept &= k->accepts;
        n_nots += k->kind == G4_RK_NOT;
        if (k->kind != G4_RK_SET) continue;
        n_sets++;
        for (int b = 0; b < 8; b++) both.bits[b] &= r->sets[k->a].bits[b];
    }
    if (g4_re_has(r, base, G4_RE_EMPTY)) {
        if (!accept) return 1;
        r->top = base;
        g4_re_push(r, G4_RE_EMPTY);
        return 0;
    }
    if (n_sets < 2 && n_nots < 2) return 0;
    const int n = r->top;
    for (int i = base; i < n && n_nots > 1 && !r->failed; i++) /* what they leave out, above the operands */
        if (r->nodes[r->stack[i]].kind == G4_RK_NOT) g4_re_push(r, r->nodes[r->stack[i]].a);
    const g4_re out = n_nots > 1 ? g4_re_not(r, g4_re_join(r, G4_RK_OR, n)) : G4_RE_NONE;
    for (int i = base; i < n; i++) {
        const uint8_t kind = r->nodes[r->stack[i]].kind;
        if ((kind == G4_RK_SET && n_sets > 1) || (kind == G4_RK_NOT && n_nots > 1)) continue;
        r->stack[kept++] = r->stack[i];
    }
    r->top = kept;
    if (n_nots > 1) g4_re_push(r, out);
    if (n_sets > 1) {
        const g4_re set = g4_re_set(r, both.bits);
        if (set == G4_RE_NONE) return 1;
        g4_re_push(r, set);
    }
    g4_re_sort(r, base);
    return out == G4_RE_NONE && n_nots > 1;
}

/* Is one of the operands above base the complement of another? */
static int g4_re_has_complement(const g4_regular *r, int base)
{
    for (int i = base; i < r->top; i++)
        if (r->nodes[r->stack[i]].kind == G4_RK_NOT && g4_re_has(r, base, r->nodes[r->stack[i]].a)) return 1;
    return 0;
}

/* ---- What is made of itself: alternatives of `and` without `or` in them ---- */

/* Is the sorted list of an AND, or the one expression x, part of the list of the AND y? */
static int g4_re_is_part(const g4_regular *r, g4_re x, g4_re y)
{
    const g4_re_node *a = &r->nodes[x], *b = &r->nodes[y];
    const int32_t *in = r->lists + b->a;
    int n = 0;
    if (b->kind != G4_RK_AND || x == y) return 0;
    if (a->kind != G4_RK_AND) {
        while (n < b->b && in[n] < x) n++;
        return n < b->b && in[n] == x;
    }
    for (int i = 0; i < a->b; i++, n++) {
        while (n < b->b && in[n] < r->lists[a->a + i]) n++;
        if (n == b->b || in[n] != r->lists[a->a + i]) return 0;
    }
    return 1;
}

/* x | x & y is x. */
static void g4_re_absorb(g4_regular *r, int base)
{
    int kept = base, has_later = 0;
    for (int i = base; i < r->top; i++) has_later |= r->nodes[r->stack[i]].is_checked & G4_HAS_LATER;
    if (!has_later || r->top - base > G4_RE_MAX_SPREAD) return;
    for (int i = base; i < r->top; i++) {
        int is_absorbed = 0;
        for (int k = base; k < r->top && !is_absorbed; k++) is_absorbed = g4_re_is_part(r, r->stack[k], r->stack[i]);
        if (!is_absorbed) r->stack[kept++] = r->stack[i];
    }
    r->top = kept;
}

/* The place of an `or` among the operands of AND above base that has to be spread over the others; -1: none. */
static int g4_re_find_or(const g4_regular *r, int base)
{
    int64_t size = 1;
    int found = -1;
    for (int i = base; i < r->top && size <= G4_RE_MAX_SPREAD; i++) {
        const g4_re_node *k = &r->nodes[r->stack[i]];
        if (k->kind != G4_RK_OR || !(k->is_checked & G4_HAS_LATER)) continue;
        size *= k->b;
        found = i;
    }
    return size <= G4_RE_MAX_SPREAD ? found : -1;
}

/* x & (y | z) as x & y | x & z. */
static g4_re g4_re_spread(g4_regular *r, int base, int place)
{
    const g4_re_node k = r->nodes[r->stack[place]];
    const int n = r->top;
    for (int i = 0; i < k.b && !r->failed; i++) {
        const int one = r->top;
        for (int j = base; j < n; j++) g4_re_push(r, j == place ? r->lists[k.a + i] : r->stack[j]);
        const g4_re x = g4_re_join(r, G4_RK_AND, one);
        g4_re_push(r, x);
    }
    const g4_re all = g4_re_join(r, G4_RK_OR, n);
    r->top = base;
    return all;
}

/* Any text or x is any text, and of any text and x, x is left, where x is characters. Returns 1 when they are all
 * nothing: x, and what is no text. */
static int g4_re_join_any_text(g4_regular *r, g4_re_kind kind, int base)
{
    int is_none = 0;
    for (int spelling = 0; spelling < 2; spelling++) {
        const g4_re any = r->any_text[spelling];
        int kept = base, n_fit = 0;
        const int has_none = kind == G4_RK_AND && r->no_text[spelling] != 0 && g4_re_has(r, base, r->no_text[spelling]);
        if (any == 0 || (!has_none && !g4_re_has(r, base, any))) continue;
        for (int i = base; i < r->top; i++) n_fit += r->nodes[r->stack[i]].fits >> spelling & 1;
        is_none |= has_none && n_fit > 0;
        for (int i = base; i < r->top; i++) {
            const g4_re x = r->stack[i];
            const int is_dropped =
                kind == G4_RK_OR ? x != any && (r->nodes[x].fits >> spelling & 1) : x == any && n_fit > 1;
            if (!is_dropped) r->stack[kept++] = x;
        }
        r->top = kept;
    }
    return is_none;
}

/* The expression of the operands above base, which are taken off. */
static g4_re g4_re_join(g4_regular *r, g4_re_kind kind, int base)
{
    const g4_re all = kind == G4_RK_OR ? G4_RE_ALL : G4_RE_NONE;
    int is_all = g4_re_flatten(r, kind, base);
    const int spread = is_all || r->failed || kind == G4_RK_OR || r->top - base < 2 ? -1 : g4_re_find_or(r, base);
    if (spread >= 0) return g4_re_spread(r, base, spread);
    if (!is_all && !r->failed && r->top - base > 1) {
        g4_re_sort(r, base);
        is_all = g4_re_join_any_text(r, kind, base);
        if (kind == G4_RK_OR)
            g4_re_merge(r, base);
        else
            is_all = is_all || g4_re_intersect(r, base);
        is_all = is_all || g4_re_has_complement(r, base);
        if (kind == G4_RK_OR && !is_all) g4_re_absorb(r, base);
    }
    const int n = r->top - base;
    r->top = base;
    if (r->failed) return G4_RE_NONE;
    if (is_all) return all;
    if (n == 0) return kind == G4_RK_OR ? G4_RE_NONE : G4_RE_ALL;
    if (n == 1) return r->stack[base];
    return g4_re_intern(r, (g4_re_node) { .kind = (uint8_t)kind, .b = n }, r->stack + base);
}

static g4_re g4_re_both(g4_regular *r, g4_re_kind kind, g4_re a, g4_re b)
{
    const int base = r->top;
    if (a == b) return a;
    g4_re_push(r, a);
    g4_re_push(r, b);
    return g4_re_join(r, kind, base);
}

g4_re g4_re_or(g4_regular *r, g4_re a, g4_re b) { return g4_re_both(r, G4_RK_OR, a, b); }
g4_re g4_re_and(g4_regular *r, g4_re a, g4_re b) { return g4_re_both(r, G4_RK_AND, a, b); }

/* x, where it is an `and`, as one whose operands agree. */
static g4_re g4_re_as_agreed(g4_regular *r, g4_re x)
{
    const g4_re_node k = r->nodes[x];
    const int base = r->top;
    if (k.kind != G4_RK_AND || k.min == 1) return x;
    for (int i = 0; i < k.b; i++) g4_re_push(r, r->lists[k.a + i]); /* the list may move */
    r->top = base;
    if (r->failed) return G4_RE_NONE;
    return g4_re_intern(r, (g4_re_node) { .kind = G4_RK_AND, .b = k.b, .min = 1 }, r->stack + base);
}

g4_re g4_re_agree(g4_regular *r, g4_re a, g4_re b) { return g4_re_as_agreed(r, g4_re_and(r, a, b)); }

g4_re g4_re_any_of(g4_regular *r, const g4_re *list, int n)
{
    const int base = r->top;
    for (int i = 0; i < n; i++) g4_re_push(r, list[i]);
    return g4_re_join(r, G4_RK_OR, base);
}

/* ---- Texts --------------------------------------------------------------------------------------- */

g4_re g4_re_range(g4_regular *r, int low, int high)
{
    g4_byte_set s = { { 0 } };
    for (int b = low; b <= high; b++) s.bits[b / 32] |= 1u << (b % 32);
    return g4_re_set(r, s.bits);
}

g4_re g4_re_text(g4_regular *r, const char *s, size_t n)
{
    g4_re x = G4_RE_EMPTY;
    for (size_t i = n; i > 0 && !r->failed; i--)
        x = g4_re_concat(r, g4_re_range(r, (unsigned char)s[i - 1], (unsigned char)s[i - 1]), x);
    return x;
}

static int g4_text_compare(const void *pa, const void *pb)
{
    const g4_text *a = pa, *b = pb;
    return g4_bytes_compare(a->s, a->n, b->s, b->n);
}

/* The tree of the texts, from the first to the last in their order: behind each byte of the text before stand, on the
 * stack, the branches that are complete, and on top of them how many there are. */
static g4_re g4_re_tree(g4_regular *r, const g4_text *texts, size_t n)
{
    const int base = r->top;
    size_t depth = 0;
    g4_re_push(r, 0);
    for (size_t i = 0; i <= n && !g4_re_stops(r); i++) {
        size_t common = 0;
        if (i > 0 && i < n)
            while (common < depth && common < texts[i].n && texts[i].s[common] == texts[i - 1].s[common]) common++;
        for (; depth > common && !r->failed; depth--) { /* what stands below is a branch of what stands above */
            const int branches = r->stack[r->top - 1];
            r->top--;
            const g4_re below = g4_re_join(r, G4_RK_OR, r->top - branches);
            const int byte = (unsigned char)texts[i - 1].s[depth - 1];
            const int32_t above = r->stack[--r->top];
            g4_re_push(r, g4_re_concat(r, g4_re_range(r, byte, byte), below));
            g4_re_push(r, above + 1);
        }
        if (i == n) break;
        for (; depth < texts[i].n && !r->failed; depth++) g4_re_push(r, 0);
        if (r->failed) break;
        r->stack[r->top - 1]++; /* the text may end here */
        const int32_t count = r->stack[--r->top];
        g4_re_push(r, G4_RE_EMPTY);
        g4_re_push(r, count);
    }
    if (!r->failed) r->top--;
    return g4_re_join(r, G4_RK_OR, base);
}

g4_re g4_re_one_of(g4_regular *r, g4_text *texts, size_t n)
{
    if (r->failed) return G4_RE_NONE;
    if (!g4_sort(r->a, texts, n, sizeof *texts, g4_text_compare, r->asker.halt)) {
        g4_regular_fail(r, g4_halted(r->asker.halt) ? G4_NET_HALTED : G4_NET_NO_MEMORY);
        return G4_RE_NONE;
    }
    return n == 0 ? G4_RE_NONE : g4_re_tree(r, texts, n);
}

/* ---- Characters ---------------------------------------------------------------------------------- */

const g4_char_range g4_string_ranges[G4_N_STRING_RANGES] = { { 0x20, 0x21 }, { 0x23, 0x5b }, { 0x5d, 0x10ffff } };

/* Where the ranges of a class stand that may reach low or lie above it. */
static int g4_class_seek(const g4_class *k, uint32_t low)
{
    int from = 0;
    for (int to = k->n; from < to;) {
        const int middle = from + (to - from) / 2;
        if (k->ranges[middle].high < low)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

/* What `places` more bytes of UTF-8 may be, behind those that stand for low, so that the code point is in the class and
 * between min and max. The depth of the calls is at most 3. */
static g4_re g4_re_utf8_tail(g4_regular *r, const g4_class *k, uint32_t low, int places, uint32_t min, uint32_t max)
{
    const uint32_t size = 1u << (6 * places), high = low + size - 1;
    const int first = g4_class_seek(k, low > min ? low : min);
    if (high < min || low > max || first >= k->n || k->ranges[first].low > high || k->ranges[first].low > max)
        return G4_RE_NONE;
    if (places == 0) return G4_RE_EMPTY;
    if (low >= min && high <= max && k->ranges[first].low <= low && k->ranges[first].high >= high)
        return g4_re_repeat(r, g4_re_range(r, 0x80, 0xbf), places, places);
    const int base = r->top;
    g4_re tail = g4_re_utf8_tail(r, k, low, places - 1, min, max);
    for (uint32_t i = 0, end = 1; i < 64 && !r->failed; i = end++) { /* bytes with the same tail are one set */
        g4_re next = G4_RE_NONE;
        for (; end < 64; end++) {
            next = g4_re_utf8_tail(r, k, low + end * (size / 64), places - 1, min, max);
            if (next != tail) break;
        }
        if (tail != G4_RE_NONE) g4_re_push(r, g4_re_concat(r, g4_re_range(r, 0x80 + (int)i, 0x7f + (int)end), tail));
        tail = next;
    }
    return g4_re_join(r, G4_RK_OR, base);
}

/* The ASCII characters of a settled class. */
static g4_re g4_re_ascii(g4_regular *r, const g4_class *k)
{
    g4_byte_set set = { { 0 } };
    for (int i = 0; i < k->n && k->ranges[i].low < 0x80; i++)
        for (uint32_t cp = k->ranges[i].low; cp <= k->ranges[i].high && cp < 0x80; cp++)
            set.bits[cp / 32] |= 1u << (cp % 32);
    return g4_re_set(r, set.bits);
}

/* The code points of a settled class as UTF-8. */
static g4_re g4_re_utf8(g4_regular *r, const g4_class *k)
{
    static const struct {
        uint32_t min, max, lead;
        int places;
    } forms[] = {
        { 0x80, 0x7ff, 0xc0, 1 },
        { 0x800, 0xd7ff, 0xe0, 2 },
        { 0xe000, 0xffff, 0xe0, 2 },
        { 0x10000, 0x10ffff, 0xf0, 3 },
    };
    const int base = r->top;
    g4_re_push(r, g4_re_ascii(r, k));
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        const uint32_t size = 1u << (6 * forms[i].places);
        uint32_t low = forms[i].min & ~(size - 1);
        while (low <= forms[i].max && !r->failed) {
            const int first = g4_class_seek(k, low);
            if (first >= k->n) break;
            if (k->ranges[first].low > low) low = k->ranges[first].low & ~(size - 1); /* nothing before it */
            if (low > forms[i].max) break;
            const g4_re tail = g4_re_utf8_tail(r, k, low, forms[i].places, forms[i].min, forms[i].max);
            const int byte = (int)(forms[i].lead | low / size);
            if (tail != G4_RE_NONE) g4_re_push(r, g4_re_concat(r, g4_re_range(r, byte, byte), tail));
            low += size;
        }
    }
    return g4_re_join(r, G4_RK_OR, base);
}

static int g4_class_has(const g4_class *k, uint32_t cp)
{
    const int i = g4_class_seek(k, cp);
    return i < k->n && k->ranges[i].low <= cp;
}

/* The escapes that a JSON string has for the characters that cannot stand in it as they are. */
static g4_re g4_re_escapes(g4_regular *r, const g4_class *k)
{
    static const char letters[] = "btn\0fr", digits[] = "0123456789abcdef"; /* of 8 to 13; 11 has none */
    const int base = r->top;
    for (uint32_t cp = 0; cp <= '\\'; cp = cp == 0x1f ? '"' : cp == '"' ? '\\' : cp + 1) {
        char text[6] = { '\\', 'u', '0', '0', digits[cp / 16], digits[cp % 16] };
        size_t n = 6;
        if (cp >= 0x20 || (cp >= 8 && cp <= 13 && cp != 11)) {
            text[1] = cp >= 0x20 ? (char)cp : letters[cp - 8];
            n = 2;
        }
        if (g4_class_has(k, cp)) g4_re_push(r, g4_re_text(r, text, n));
    }
    return g4_re_join(r, G4_RK_OR, base);
}

static g4_re g4_re_make_class(g4_regular *r, const g4_class *k, g4_spelling spelling)
{
    if (k->n == 1 && k->ranges[0].low == k->ranges[0].high) { /* mostly so */
        const uint32_t cp = k->ranges[0].low;
        char text[4];
        if (spelling == G4_RAW || (cp >= 0x20 && cp != '"' && cp != '\\'))
            return cp >= 0xd800 && cp <= 0xdfff ? G4_RE_NONE : g4_re_text(r, text, g4_utf8_encode(cp, text));
    }
    if (spelling == G4_RAW) return g4_re_utf8(r, k);
    g4_class plain = { 0 };
    for (int i = 0; i < k->n; i++)
        for (int p = 0; p < G4_N_STRING_RANGES; p++) {
            const uint32_t low =
                k->ranges[i].low > g4_string_ranges[p].low ? k->ranges[i].low : g4_string_ranges[p].low;
            const uint32_t high =
                k->ranges[i].high < g4_string_ranges[p].high ? k->ranges[i].high : g4_string_ranges[p].high;
            g4_char_range *ranges =
                low <= high ? g4_array_grow(r->a, plain.ranges, plain.n, &plain.cap, sizeof *ranges) : NULL;
            if (low > high) continue;
            if (ranges == NULL) {
                g4_regular_fail(r, G4_NET_NO_MEMORY);
                continue;
            }
            plain.ranges = ranges;
            ranges[plain.n++] = (g4_char_range) { low, high };
        }
    const g4_re as_it_is = g4_re_utf8(r, &plain);
    g4_free(r->a, plain.ranges);
    return g4_re_or(r, as_it_is, g4_re_escapes(r, k));
}

/* Remember that x, which is a class, is a character, and what any text is. */
static void g4_re_mark_fits(g4_regular *r, const g4_class *k, g4_re x, g4_spelling spelling)
{
    r->nodes[x].fits |= (uint8_t)(1 << spelling);
    if (k->n != 1 || k->ranges[0].low != 0 || k->ranges[0].high != 0x10ffff) return;
    r->any_text[spelling] = g4_re_repeat(r, x, 0, -1);
    r->no_text[spelling] = g4_re_not(r, r->any_text[spelling]);
}

g4_re g4_re_class(g4_regular *r, const g4_class *k, g4_spelling spelling)
{
    uint64_t print[2] = { (uint64_t)spelling, 1 };
    if (k->n == 1 && k->ranges[0].low == k->ranges[0].high) {
        const g4_re one = g4_re_make_class(r, k, spelling);
        if (!r->failed) g4_re_mark_fits(r, k, one, spelling);
        return one;
    }
    for (int i = 0; i < k->n; i++)
        for (int b = 0; b < 2; b++)
            print[b] = g4_hash_mix(print[b], (uint64_t)k->ranges[i].low << 32 | k->ranges[i].high);
    g4_made_class *known = &r->classes[print[0] % G4_RE_CLASSES];
    if (known->print[0] == print[0] && known->print[1] == print[1] && known->re < r->n_nodes) return known->re;
    const g4_re x = g4_re_make_class(r, k, spelling);
    if (!r->failed) g4_re_mark_fits(r, k, x, spelling);
    if (!r->failed) *known = (g4_made_class) { { print[0], print[1] }, x };
    return x;
}

/* \u and four digits that are no half of a surrogate pair, or two that are its halves. */
static g4_re g4_re_unicode_escapes(g4_regular *r)
{
    g4_byte_set hex = { { 0 } }, no_d = hex, d = hex, high = hex, low = hex;
    for (const char *p = "0123456789abcdefABCDEF"; *p != '\0'; p++) {
        const uint32_t word = (uint32_t)*p / 32, bit = 1u << (*p % 32);
        const int is_d = (*p | 0x20) == 'd', is_high = strchr("89abAB", *p) != NULL,
                  is_low = strchr("cdefCDEF", *p) != NULL;
        hex.bits[word] |= bit;
        if (!is_d) no_d.bits[word] |= bit;
        if (is_d) d.bits[word] |= bit;
        if (is_high) high.bits[word] |= bit;
        if (is_low) low.bits[word] |= bit;
    }
    const g4_re x = g4_re_set(r, hex.bits), u = g4_re_text(r, "\\u", 2), dd = g4_re_set(r, d.bits);
    const g4_re x2 = g4_re_repeat(r, x, 2, 2), x3 = g4_re_repeat(r, x, 3, 3);
    const g4_re one = g4_re_or(r, g4_re_concat(r, g4_re_set(r, no_d.bits), x3),
                               g4_re_concat(r, g4_re_concat(r, dd, g4_re_range(r, '0', '7')), x2));
    const g4_re first = g4_re_concat(r, g4_re_concat(r, dd, g4_re_set(r, high.bits)), x2);
    const g4_re second = g4_re_concat(r, g4_re_concat(r, dd, g4_re_set(r, low.bits)), x2);
    return g4_re_concat(r, u, g4_re_or(r, one, g4_re_concat(r, first, g4_re_concat(r, u, second))));
}

g4_re g4_re_any_char(g4_regular *r, g4_spelling spelling)
{
    g4_char_range all = { 0, 0x10ffff }, plain[G4_N_STRING_RANGES];
    if (r->any_char[spelling] != 0) return r->any_char[spelling];
    if (spelling == G4_RAW) return r->any_char[G4_RAW] = g4_re_utf8(r, &(g4_class) { .ranges = &all, .n = 1 });
    memcpy(plain, g4_string_ranges, sizeof plain);
    const g4_re as_it_is = g4_re_utf8(r, &(g4_class) { .ranges = plain, .n = G4_N_STRING_RANGES });
    g4_byte_set letters = { { 0 } };
    for (const char *p = "\"\\/bfnrt"; *p != '\0'; p++) letters.bits[*p / 32] |= 1u << (*p % 32);
    const g4_re escape = g4_re_concat(r, g4_re_range(r, '\\', '\\'), g4_re_set(r, letters.bits));
    r->any_char[G4_ESCAPED] = g4_re_or(r, as_it_is, g4_re_or(r, escape, g4_re_unicode_escapes(r)));
    return r->any_char[G4_ESCAPED];
}

/* \uXXXX of 16 bits, in hex digits of either case. */
static g4_re g4_re_unicode_escape(g4_regular *r, uint32_t unit)
{
    g4_re x = g4_re_text(r, "\\u", 2);
    for (int shift = 12; shift >= 0; shift -= 4) {
        const int digit = (int)(unit >> shift & 15);
        g4_re one = g4_re_range(r, "0123456789abcdef"[digit], "0123456789abcdef"[digit]);
        if (digit > 9) one = g4_re_or(r, one, g4_re_range(r, 'A' + digit - 10, 'A' + digit - 10));
        x = g4_re_concat(r, x, one);
    }
    return x;
}

/* One character of a JSON string in all its spellings. */
static g4_re g4_re_same_char(g4_regular *r, uint32_t cp)
{
    static const char values[] = "\"\\/\b\f\n\r\t", letters[] = "\"\\/bfnrt";
    char text[4];
    g4_re x;
    if (cp >= 0x10000)
        x = g4_re_concat(r, g4_re_unicode_escape(r, 0xd800 + ((cp - 0x10000) >> 10)),
                         g4_re_unicode_escape(r, 0xdc00 + ((cp - 0x10000) & 0x3ff)));
    else
        x = g4_re_unicode_escape(r, cp);
    if (cp >= 0x20 && cp != '"' && cp != '\\') x = g4_re_or(r, x, g4_re_text(r, text, g4_utf8_encode(cp, text)));
    const char *found = cp > 0 && cp < 0x80 ? strchr(values, (int)cp) : NULL;
    if (found != NULL) {
        text[0] = '\\';
        text[1] = letters[found - values];
        x = g4_re_or(r, x, g4_re_text(r, text, 2));
    }
    return x;
}

/* The character that the text of a JSON string begins with; returns its bytes, or 0. */
static size_t g4_re_read_char(const char *s, size_t n, uint32_t *cp)
{
    static const char values[] = "\"\\/\b\f\n\r\t", letters[] = "\"\\/bfnrt";
    if (n == 0 || s[0] != '\\') return g4_utf8_decode(s, n, cp);
    if (n < 2) return 0;
    if (s[1] == 'u') return g4_json_unescape_unicode(s, n, cp);
    const char *found = s[1] != '\0' ? strchr(letters, s[1]) : NULL;
    if (found != NULL) *cp = (unsigned char)values[found - letters];
    return found != NULL ? 2 : 0;
}

g4_re g4_re_same_string(g4_regular *r, const char *s, size_t n)
{
    const g4_re quote = g4_re_range(r, '"', '"');
    const int base = r->top;
    if (n < 2 || s[0] != '"' || s[n - 1] != '"') return G4_RE_NONE;
    for (size_t i = 1, size; i < n - 1 && !g4_re_stops(r); i += size) {
        uint32_t cp;
        size = g4_re_read_char(s + i, n - 1 - i, &cp);
        if (size == 0 || (cp >= 0xd800 && cp <= 0xdfff)) {
            r->top = base;
            return G4_RE_NONE;
        }
        g4_re_push(r, g4_re_same_char(r, cp));
    }
    g4_re x = quote;
    while (r->top > base && !r->failed) {
        const g4_re head = r->stack[--r->top];
        x = g4_re_concat(r, head, x);
    }
    r->top = base;
    return g4_re_concat(r, quote, x);
}

/* ---- Steps --------------------------------------------------------------------------------------- */

/* The one copy of a division of the bytes; NULL: no memory. */
static const g4_division *g4_re_division(g4_regular *r, const uint8_t class_of[256])
{
    const uint32_t hash = g4_hash_bytes((const char *)class_of, 256);
    uint32_t at = 0;
    for (int32_t i; (i = g4_table_next(&r->division_table, hash, &at)) >= 0;)
        if (memcmp(r->divisions[i]->class_of, class_of, 256) == 0) return r->divisions[i];
    const g4_division **divisions =
        g4_array_grow(r->a, r->divisions, r->n_divisions, &r->cap_divisions, sizeof(const g4_division *));
    if (divisions != NULL) r->divisions = divisions;
    g4_division *own = divisions != NULL ? g4_arena_alloc(&r->rows, sizeof *own) : NULL;
    if (own == NULL || !g4_table_reserve(&r->division_table, r->a, r->n_divisions)) {
        g4_regular_fail(r, G4_NET_NO_MEMORY);
        return NULL;
    }
    r->row_bytes += sizeof *own;
    memcpy(own->class_of, class_of, 256);
    for (int b = 255; b >= 0; b--) {
        own->sample[class_of[b]] = (uint8_t)b;
        own->n = g4_max_int(own->n, class_of[b] + 1);
    }
    g4_table_put(&r->division_table, hash, r->n_divisions);
    return r->divisions[r->n_divisions++] = own;
}

/* Are the 8 bytes from byte i on in the class that the one before them is in? */
static int g4_re_is_alike(const g4_division *d, int i)
{
    uint64_t classes;
    memcpy(&classes, d->class_of + i, sizeof classes);
    return classes == d->class_of[i - 1] * 0x0101010101010101u;
}

/* The classes of bytes that neither of two divisions tells apart. */
static void g4_re_divide(uint8_t class_of[256], const g4_division *a, const g4_division *b)
{
    uint8_t of_b[256];  /* the class of b that a class is of */
    int16_t found[256]; /* the newest class of each class of a */
    int16_t older[256]; /* the one before it of the same class of a */
    int n = 0;
    memset(found, -1, sizeof found);
    for (int i = 0; i < 256; i++) {
        const uint8_t in_a = a->class_of[i], in_b = b->class_of[i];
        if (i > 0 && i % 8 == 0 && g4_re_is_alike(a, i) && g4_re_is_alike(b, i)) { /* as most are */
            memset(class_of + i, class_of[i - 1], 8);
            i += 7;
            continue;
        }
        int c = found[in_a];
        while (c >= 0 && of_b[c] != in_b) c = older[c];
        if (c < 0) {
            c = n++;
            of_b[c] = in_b;
            older[c] = found[in_a];
            found[in_a] = (int16_t)c;
        }
        class_of[i] = (uint8_t)c;
    }
}

/* The division by two divisions; NULL: no memory. The last ones are remembered. */
static const g4_division *g4_re_product(g4_regular *r, const g4_division *a, const g4_division *b)
{
    uint8_t class_of[256];
    if (a == b || b->n == 1) return a;
    if (a->n == 1) return b;
    const uint64_t hash = g4_hash_mix(g4_hash_mix(1, (uintptr_t)a), (uintptr_t)b) >> 32;
    g4_division_pair *known = &r->products[hash % G4_RE_N_PRODUCTS];
    if (known->a != a || known->b != b) {
        g4_re_divide(class_of, a, b);
        const g4_division *both = g4_re_division(r, class_of);
        if (both == NULL) return NULL;
        *known = (g4_division_pair) { a, b, both };
    }
    return known->both;
}

/* The division of the bytes by all operands of x whose steps matter, which are made; NULL: no memory. */
static const g4_division *g4_re_classes(g4_regular *r, const g4_re_node *x)
{
    const int is_list = x->kind == G4_RK_OR || x->kind == G4_RK_AND;
    const int n = is_list ? x->b : x->kind == G4_RK_CONCAT && r->nodes[x->a].accepts ? 2 : 1;
    const g4_division *all = NULL;
    for (int i = 0; i < n && (i == 0 || all != NULL); i++) {
        const g4_re first = x->kind == G4_RK_LATER ? r->later[x->a] : x->a;
        const g4_re k = is_list ? r->lists[x->a + i] : i == 0 ? first : x->b;
        const g4_division *one = r->nodes[k].steps->division;
        all = i == 0 ? one : g4_re_product(r, all, one);
    }
    return all;
}

static g4_re g4_re_to(const g4_regular *r, g4_re x, uint8_t byte)
{
    const g4_re_steps *s = r->nodes[x].steps;
    return s->to[s->division->class_of[byte]];
}

/* What the operands above base, which are taken off, are as CONCAT, OR or AND. Neighbours in a text lead to the same
 * for most bytes: what was made of the same operands is not made again. */
static g4_re g4_re_make(g4_regular *r, g4_re_kind kind, int base)
{
    const int n = r->top - base;
    const size_t size = (size_t)n * sizeof *r->stack;
    uint64_t h = kind;
    if (r->failed || n > G4_RE_MAX_MADE) return g4_re_join(r, kind, base);
    for (int i = base; i < r->top; i++) h = g4_hash_mix(h, (uint32_t)r->stack[i]);
    g4_re_made *known = &r->made[h >> 32 & (G4_RE_N_MADE - 1)];
    r->top = base;
    if (known->n == n && known->kind == kind && memcmp(known->operands, r->stack + base, size) == 0) return known->re;
    int32_t *operands = g4_arena_alloc(&r->rows, size);
    if (operands == NULL) {
        g4_regular_fail(r, G4_NET_NO_MEMORY);
        return G4_RE_NONE;
    }
    memcpy(operands, r->stack + base, size);
    r->row_bytes += size;
    if (kind != G4_RK_CONCAT) r->top = base + n;
    const g4_re re = kind == G4_RK_CONCAT ? g4_re_concat(r, operands[0], operands[1]) : g4_re_join(r, kind, base);
    if (!r->failed) *known = (g4_re_made) { operands, n, re, (uint8_t)kind };
    return re;
}

static g4_re g4_re_make_both(g4_regular *r, g4_re_kind kind, g4_re a, g4_re b)
{
    const int base = r->top;
    g4_re_push(r, a);
    g4_re_push(r, b);
    return g4_re_make(r, kind, base);
}

/* What may follow after a byte, where the steps of the operands are made. */
static g4_re g4_re_derive(g4_regular *r, g4_re_node x, uint8_t byte)
{
    const int base = r->top;
    switch ((g4_re_kind)x.kind) {
    case G4_RK_CONCAT: {
        const g4_re to = g4_re_to(r, x.a, byte);
        const g4_re a = to == G4_RE_NONE ? to : to == G4_RE_EMPTY ? x.b : g4_re_make_both(r, G4_RK_CONCAT, to, x.b);
        return r->failed || !r->nodes[x.a].accepts ? a : g4_re_make_both(r, G4_RK_OR, a, g4_re_to(r, x.b, byte));
    }
    case G4_RK_REPEAT: {
        const g4_re a = g4_re_to(r, x.a, byte);
        if (a == G4_RE_NONE) return a;
        const g4_re rest = g4_re_repeat(r, x.a, x.min > 0 ? x.min - 1 : 0, x.max < 0 ? -1 : x.max - 1);
        return r->failed ? G4_RE_NONE : g4_re_make_both(r, G4_RK_CONCAT, a, rest);
    }
    case G4_RK_NOT: return g4_re_not(r, g4_re_to(r, x.a, byte));
    case G4_RK_LATER: return g4_re_to(r, r->later[x.a], byte);
    case G4_RK_OR:
    case G4_RK_AND:
        for (int i = 0; i < x.b && !r->failed; i++) g4_re_push(r, g4_re_to(r, r->lists[x.a + i], byte));
        const g4_re all = g4_re_make(r, (g4_re_kind)x.kind, base);
        return x.kind == G4_RK_AND && x.min == 1 && !r->failed ? g4_re_as_agreed(r, all) : all;
    default: return G4_RE_NONE;
    }
}

/* The division whose classes are those of another, some of which become one; NULL: no memory. */
static const g4_division *g4_re_merge_classes(g4_regular *r, const g4_division *d, const uint8_t *becomes)
{
    uint8_t class_of[256];
    g4_division_merger *known = NULL;
    if (d->n <= G4_RE_MERGED_CLASSES) {
        const uint32_t hash = g4_hash_bytes((const char *)becomes, (size_t)d->n);
        known = &r->merged[g4_hash_mix(hash, (uintptr_t)d) >> 32 & (G4_RE_N_PRODUCTS - 1)];
        if (known->from == d && memcmp(known->becomes, becomes, (size_t)d->n) == 0) return known->to;
    }
    for (int b = 0; b < 256; b++) class_of[b] = becomes[d->class_of[b]];
    const g4_division *to = g4_re_division(r, class_of);
    if (known != NULL && to != NULL) {
        known->from = d;
        known->to = to;
        memcpy(known->becomes, becomes, (size_t)d->n);
    }
    return to;
}

/* Keep steps to `to` by class; classes that lead to the same become one. */
static void g4_re_keep_steps(g4_regular *r, g4_re x, const g4_division *d, const g4_re *to)
{
    uint8_t becomes[256];
    g4_re kept[256];
    int n_kept = 0;
    for (int i = 0; i < d->n; i++) {
        g4_re_node *next = &r->nodes[to[i]];
        if (next->kept >= n_kept || kept[next->kept] != to[i]) {
            next->kept = (uint8_t)n_kept;
            kept[n_kept++] = to[i];
        }
        becomes[i] = next->kept;
    }
    const size_t size = sizeof(g4_re_steps) + (size_t)n_kept * sizeof *kept;
    const g4_division *merged = n_kept == d->n ? d : g4_re_merge_classes(r, d, becomes);
    g4_re_steps *s = merged == NULL ? NULL : g4_arena_alloc(&r->rows, size);
    if (s == NULL) {
        g4_regular_fail(r, G4_NET_NO_MEMORY);
        return;
    }
    r->row_bytes += size;
    s->n = n_kept;
    s->division = merged;
    memcpy(s->to, kept, (size_t)n_kept * sizeof *kept);
    r->nodes[x].steps = s;
}

static g4_re g4_re_multiple_at(g4_regular *r, const g4_re_node *x, int64_t residue, int phase)
{
    const g4_re_node next = { .kind = G4_RK_MULTIPLE, .a = x->a, .b = x->b, .min = (int32_t)residue, .max = phase };
    int left;
    int64_t most = 1; /* that the digits that are left can make, and one more */
    const int64_t missing = g4_re_multiple_missing(&next, &left);
    for (int i = 0; i < left && most <= x->a; i++) most *= 10;
    return phase >= G4_IN_FRACTION && missing >= most ? G4_RE_NONE : g4_re_intern(r, next, NULL);
}

static g4_re g4_re_multiple_step(g4_regular *r, const g4_re_node *x, int byte)
{
    const int phase = x->max, behind = phase - G4_IN_FRACTION, digit = byte - '0';
    if (byte == '-') return phase == G4_AT_START ? g4_re_multiple_at(r, x, 0, G4_BEHIND_SIGN) : G4_RE_NONE;
    if (byte == '.') {
        if (phase != G4_BEHIND_ZERO && phase != G4_IN_WHOLE) return G4_RE_NONE;
        return g4_re_multiple_at(r, x, x->min, G4_IN_FRACTION);
    }
    if (digit < 0 || digit > 9 || phase == G4_BEHIND_ZERO) return G4_RE_NONE;
    if (phase < G4_IN_WHOLE) return g4_re_multiple_at(r, x, digit % x->a, digit == 0 ? G4_BEHIND_ZERO : G4_IN_WHOLE);
    const int64_t residue = ((int64_t)x->min * 10 + digit) % x->a;
    if (phase == G4_IN_WHOLE) return g4_re_multiple_at(r, x, residue, phase);
    if (behind < x->b) return g4_re_multiple_at(r, x, residue, phase + 1);
    return digit == 0 ? g4_re_multiple_at(r, x, x->min, G4_IN_FRACTION + g4_max_int(behind, 1)) : G4_RE_NONE;
}

g4_re g4_re_multiple(g4_regular *r, int32_t modulus, int32_t places)
{
    return g4_re_intern(r, (g4_re_node) { .kind = G4_RK_MULTIPLE, .a = modulus, .b = places }, NULL);
}

/* Of an expression without operands: its division of the bytes, and where its classes lead to. NULL: no memory. */
static const g4_division *g4_re_leaf_steps(g4_regular *r, const g4_re_node *x, g4_re *to)
{
    static const char digits[] = "/-.0123456789"; /* the first stands for all others */
    uint8_t class_of[256] = { 0 };
    to[0] = G4_RE_NONE;
    to[1] = G4_RE_EMPTY;
    for (int b = 0; b < 256 && x->kind == G4_RK_SET; b++)
        class_of[b] = (uint8_t)(r->sets[x->a].bits[b / 32] >> (b % 32) & 1);
    for (int i = 0; x->kind == G4_RK_MULTIPLE && digits[i] != '\0' && !r->failed; i++) {
        class_of[(unsigned char)digits[i]] = (uint8_t)i;
        to[i] = g4_re_multiple_step(r, x, digits[i]);
    }
    return r->failed ? NULL : g4_re_division(r, class_of);
}

/* Make the steps of x, those of its operands being made. */
static void g4_re_make_steps(g4_regular *r, g4_re x)
{
    g4_re to[256];
    const g4_re_node k = r->nodes[x];
    const int max_wide = g4_max_int(G4_RE_MAX_WIDE, g4_re_n_operands(r, x));
    const g4_division *d = k.kind < G4_RK_CONCAT ? g4_re_leaf_steps(r, &k, to) : g4_re_classes(r, &k);
    for (int i = 0; d != NULL && i < d->n && k.kind >= G4_RK_CONCAT && !r->failed; i++) {
        to[i] = g4_re_derive(r, k, d->sample[i]);
        if (g4_re_n_operands(r, to[i]) > max_wide) g4_regular_fail(r, G4_NET_TOO_LARGE);
    }
    if (d != NULL && !r->failed) g4_re_keep_steps(r, x, d, to);
}

/* Push the operands of x whose steps are needed and not made. */
static void g4_re_push_needed(g4_regular *r, g4_re x)
{
    const g4_re_node k = r->nodes[x];
    if (k.kind == G4_RK_OR || k.kind == G4_RK_AND) {
        for (int i = 0; i < k.b && !r->failed; i++)
            if (r->nodes[r->lists[k.a + i]].steps == NULL) g4_re_push(r, r->lists[k.a + i]);
        return;
    }
    if (k.kind < G4_RK_CONCAT) return;
    const g4_re a = k.kind == G4_RK_LATER ? r->later[k.a] : k.a;
    if (r->nodes[a].steps == NULL) g4_re_push(r, a);
    if (k.kind == G4_RK_CONCAT && r->nodes[k.a].accepts && r->nodes[k.b].steps == NULL) g4_re_push(r, k.b);
}

/* The steps of x, and with them of what they need. Those without a text may still be among them. */
static g4_re_steps *g4_re_need_steps(g4_regular *r, g4_re x)
{
    const int base = r->top;
    if (r->nodes[x].steps == NULL) g4_re_push(r, x);
    while (r->top > base && !g4_re_stops(r)) {
        const g4_re next = r->stack[r->top - 1];
        const int before = r->top;
        if (r->nodes[next].steps == NULL) g4_re_push_needed(r, next);
        if (r->top > before) continue;
        r->top--;
        if (r->nodes[next].steps == NULL) g4_re_make_steps(r, next);
    }
    r->top = base;
    return r->failed ? NULL : r->nodes[x].steps;
}

/* ---- Has it a text? ------------------------------------------------------------------------------ */

/* A search keeps what it has come to on the stack, above base: an expression, twice the number of the entry that led to
 * it plus 2 (0: none), and 1 more once its steps were looked at. */
static int g4_re_search_is_done(const g4_regular *r, int base, int entry) { return r->stack[base + 2 * entry + 1] & 1; }

/* Mark the expression of an entry, and those on the way to it, as having a text. */
static void g4_re_mark_path(g4_regular *r, int base, int entry)
{
    for (; entry >= 0; entry = r->stack[base + 2 * entry + 1] / 2 - 1)
        r->nodes[r->stack[base + 2 * entry]].life = G4_LIFE_LIVE;
}

/* Look at the steps of entry `entry` of n. Returns 1 when one of them has a text. The one that seems to be nearest to
 * its end becomes the last entry. */
static int g4_re_search_from(g4_regular *r, int base, int entry, int *n)
{
    int32_t least = INT32_MAX;
    const g4_re_steps *s = g4_re_need_steps(r, r->stack[base + 2 * entry]);
    r->stack[base + 2 * entry + 1] |= 1;
    for (int i = 0; s != NULL && i < s->n; i++) {
        g4_re_node *k = &r->nodes[s->to[i]];
        if (k->life == G4_LIFE_LIVE) {
            g4_re_mark_path(r, base, entry);
            return 1;
        }
        if (k->life == G4_LIFE_DEAD || k->seen == r->seen) continue;
        k->seen = r->seen;
        const int32_t guess = k->guess;
        g4_re_push(r, guess > least ? r->stack[r->top - 2] : s->to[i]);
        g4_re_push(r, entry * 2 + 2);
        if (r->failed) return 0;
        if (guess > least) r->stack[r->top - 4] = s->to[i];
        least = guess < least ? guess : least;
        ++*n;
    }
    return 0;
}

/* Look for a text of x, from the nearest expressions and from the newest ones in turn, since texts may be short, or
 * long and many. What was found is remembered. */
static void g4_re_search(g4_regular *r, g4_re x)
{
    const int base = r->top;
    const int max_work = g4_min_int(G4_RE_MAX_SEARCH, r->search_left);
    int n = 1, is_found = 0, nearest = 0, newest = 0, work = 0;
    if (++r->seen == 0) { /* the marks of 2^32 searches ago */
        for (int i = 0; i < r->n_nodes; i++) r->nodes[i].seen = 0;
        r->seen = 1;
    }
    g4_re_push(r, x);
    g4_re_push(r, 0);
    if (!r->failed) r->nodes[x].seen = r->seen;
    for (int turn = 0; nearest < n && work < max_work && !is_found && !r->failed; turn++) {
        const int before = n;
        const int entry = turn % 2 == 0 ? nearest : newest;
        work += 1 + g4_re_n_operands(r, r->stack[base + 2 * entry]) / G4_RE_SEARCH_WIDTH;
        is_found = g4_re_search_from(r, base, entry, &n);
        if (n > before) newest = n - 1;
        while (nearest < n && !r->failed && g4_re_search_is_done(r, base, nearest)) nearest++;
        while (newest > nearest && !r->failed && g4_re_search_is_done(r, base, newest)) newest--;
    }
    if (work > G4_RE_SMALL_SEARCH || work == max_work) r->search_left = g4_max_int(r->search_left - work, 0);
    const uint8_t life = nearest == n ? G4_LIFE_DEAD : G4_LIFE_UNDECIDED;
    for (int i = 0; i < n && !is_found && !r->failed; i++) {
        g4_re_node *k = &r->nodes[r->stack[base + 2 * i]];
        if (k->life == G4_LIFE_UNKNOWN || life == G4_LIFE_DEAD) k->life = life;
    }
    r->top = base;
}

/* What is known of x from what is known of its operands; *ask gets one of which something must be known first. */
static uint8_t g4_re_infer(const g4_regular *r, const g4_re_node *x, g4_re *ask)
{
    const int is_list = x->kind == G4_RK_OR, n = is_list ? x->b : x->kind == G4_RK_CONCAT ? 2 : 1;
    int n_live = 0, n_dead = 0, n_unknown = 0;
    for (int i = n - 1; i >= 0; i--) {
        const g4_re k = is_list ? r->lists[x->a + i] : i == 0 ? x->a : x->b;
        n_live += r->nodes[k].life == G4_LIFE_LIVE;
        n_dead += r->nodes[k].life == G4_LIFE_DEAD;
        if (r->nodes[k].life != G4_LIFE_UNKNOWN) continue;
        n_unknown++;
        *ask = k;
    }
    if (is_list ? n_live > 0 : n_live == n) return G4_LIFE_LIVE;
    if (is_list ? n_dead == n : n_dead > 0) return G4_LIFE_DEAD;
    return n_unknown > 0 ? G4_LIFE_UNKNOWN : G4_LIFE_UNDECIDED;
}

static uint8_t g4_re_life(g4_regular *r, g4_re x)
{
    const int base = r->top;
    if (r->nodes[x].life == G4_LIFE_UNKNOWN) g4_re_push(r, x);
    while (r->top > base && !g4_re_stops(r)) {
        const g4_re next = r->stack[r->top - 1];
        const g4_re_node k = r->nodes[next];
        g4_re ask = next;
        if (k.life == G4_LIFE_UNKNOWN && (k.kind == G4_RK_AND || k.kind == G4_RK_NOT || k.kind == G4_RK_LATER))
            g4_re_search(r, next);
        else if (k.life == G4_LIFE_UNKNOWN)
            r->nodes[next].life = g4_re_infer(r, &k, &ask);
        if (r->nodes[next].life != G4_LIFE_UNKNOWN)
            r->top--;
        else
            g4_re_push(r, ask);
    }
    r->top = base;
    return r->failed ? G4_LIFE_UNDECIDED : r->nodes[x].life;
}

int g4_re_is_none(g4_regular *r, g4_re a)
{
    const uint8_t life = g4_re_life(r, a);
    return life == G4_LIFE_DEAD ? 1 : life == G4_LIFE_LIVE ? 0 : -1;
}

int g4_re_disjoint(g4_regular *r, g4_re a, g4_re b) { return g4_re_is_none(r, g4_re_and(r, a, b)); }
int g4_re_within(g4_regular *r, g4_re a, g4_re b) { return g4_re_is_none(r, g4_re_and(r, a, g4_re_not(r, b))); }

/* ---- Asking -------------------------------------------------------------------------------------- */

int g4_re_accepts(const g4_regular *r, g4_re a) { return r->nodes[a].accepts; }

/* x without the alternatives that have no text. */
static g4_re g4_re_prune(g4_regular *r, g4_re x)
{
    const int base = r->top;
    if (r->nodes[x].kind != G4_RK_OR) return g4_re_life(r, x) == G4_LIFE_DEAD ? G4_RE_NONE : x;
    for (int i = 0; i < r->nodes[x].b && !r->failed; i++) {
        const g4_re k = r->lists[r->nodes[x].a + i];
        if (g4_re_life(r, k) != G4_LIFE_DEAD) g4_re_push(r, k);
    }
    if (r->top - base == r->nodes[x].b) {
        r->top = base;
        return x;
    }
    return g4_re_join(r, G4_RK_OR, base);
}

g4_re_view g4_re_steps_of(g4_regular *r, g4_re a)
{
    static const uint8_t one_class[256];
    static const g4_re none[1] = { G4_RE_NONE };
    if (r->row_bytes > G4_RE_MAX_ROW_BYTES) g4_re_forget_steps(r);
    g4_re_steps *s = r->failed ? NULL : g4_re_need_steps(r, a);
    if (s != NULL && !s->is_clean && r->nodes[a].is_checked)
        for (int i = 0; i < s->n && !r->failed; i++)
            if (r->nodes[s->to[i]].is_checked) s->to[i] = g4_re_prune(r, s->to[i]);
    if (s == NULL || r->failed) return (g4_re_view) { 1, one_class, none };
    s->is_clean = 1;
    return (g4_re_view) { s->n, s->division->class_of, s->to };
}

g4_re g4_re_step(g4_regular *r, g4_re a, int byte)
{
    const g4_re_node k = r->nodes[a];
    const g4_re_node head = k.kind == G4_RK_CONCAT ? r->nodes[k.a] : k;
    if (head.kind == G4_RK_SET && !k.is_checked) { /* needs no steps to be remembered */
        const int fits = r->sets[head.a].bits[byte / 32] >> (byte % 32) & 1;
        return !fits ? G4_RE_NONE : k.kind == G4_RK_CONCAT ? k.b : G4_RE_EMPTY;
    }
    const g4_re_view v = g4_re_steps_of(r, a);
    return v.to[v.class_of[byte]];
}

const g4_re *g4_re_row(g4_regular *r, g4_re a)
{
    const g4_re_view v = g4_re_steps_of(r, a);
    for (int b = 0; b < 256; b++) r->row[b] = v.to[v.class_of[b]];
    return r->row;
}

int g4_re_matches(g4_regular *r, g4_re a, const char *s, size_t n)
{
    for (size_t i = 0; i < n && a != G4_RE_NONE; i++) a = g4_re_step(r, a, (unsigned char)s[i]);
    return !r->failed && g4_re_accepts(r, a);
}

/* ---- Clamped counts ------------------------------------------------------------------------------ */

static g4_re g4_re_clamped(const g4_regular *r, g4_re x) { return r->nodes[x].clamped - 1; }

/* x, made of clamped operands. */
static g4_re g4_re_clamp_one(g4_regular *r, g4_re x, int longest)
{
    const g4_re_node k = r->nodes[x];
    const int base = r->top;
    switch ((g4_re_kind)k.kind) {
    case G4_RK_CONCAT: return g4_re_concat(r, g4_re_clamped(r, k.a), g4_re_clamped(r, k.b));
    case G4_RK_REPEAT:
        return g4_re_repeat(r, g4_re_clamped(r, k.a), g4_min_int(k.min, longest + 1), k.max > longest ? -1 : k.max);
    case G4_RK_OR:
        for (int i = 0; i < k.b && !r->failed; i++) g4_re_push(r, g4_re_clamped(r, r->lists[k.a + i]));
        return g4_re_join(r, G4_RK_OR, base);
    default: return x;
    }
}

/* Is `all` any number of characters, and x made of such? What is compared in no other way costs no search. */
static int g4_re_holds(const g4_regular *r, g4_re x, g4_re all)
{
    const g4_re_node k = r->nodes[all];
    for (int i = 0; i < 2 && k.kind == G4_RK_REPEAT && k.min == 0 && k.max < 0; i++)
        if (k.a == r->any_char[i] && (r->nodes[x].fits >> i & 1)) return 1;
    return 0;
}

/* Of the operands of AND, is number `limit` a repeat that only says how long number `other` may be? Its upper end is so
 * far away then that the other can come to an end before it, whatever is read, and all others hold what that holds. */
static int g4_re_only_limits(g4_regular *r, g4_re_node k, int limit, int other, int longest)
{
    const g4_re x = r->lists[k.a + other];
    const g4_re_node n = r->nodes[r->lists[k.a + limit]];
    const g4_re all = n.kind == G4_RK_REPEAT ? g4_re_repeat(r, n.a, 0, -1) : G4_RE_NONE;
    int is_within = limit != other && n.kind == G4_RK_REPEAT && n.max > longest && n.max - longest >= r->nodes[x].reach;
    for (int i = 0; i < k.b && is_within; i++)
        is_within = i == limit || i == other || g4_re_holds(r, x, r->lists[k.a + i]);
    return is_within && (g4_re_holds(r, x, all) || g4_re_within(r, x, all) == 1);
}

/* AND of which one operand is all there is to it but for a limit, without the upper end of that. */
static g4_re g4_re_unbounded(g4_regular *r, g4_re x, int longest)
{
    const g4_re_node k = r->nodes[x];
    for (int i = 0; i < k.b * k.b && k.b <= G4_RE_MAX_LIMITED && !r->failed; i++) {
        if (!g4_re_only_limits(r, k, i % k.b, i / k.b, longest)) continue;
        const g4_re_node n = r->nodes[r->lists[k.a + i % k.b]];
        const g4_re other = r->lists[k.a + i / k.b];
        return n.min == 0 ? other : g4_re_and(r, other, g4_re_repeat(r, n.a, n.min, -1));
    }
    return x;
}

g4_re g4_re_clamp(g4_regular *r, g4_re a, int longest)
{
    const int base = r->top;
    if (r->longest != longest)
        for (int i = 0; i < r->n_nodes; i++) r->nodes[i].clamped = 0;
    r->longest = longest;
    g4_re_push(r, a);
    while (r->top > base && !g4_re_stops(r)) {
        const g4_re x = r->stack[r->top - 1];
        const g4_re_node k = r->nodes[x];
        const int before = r->top;
        if (k.clamped != 0 || k.count <= longest) {
            if (k.clamped == 0) r->nodes[x].clamped = x + 1;
            r->top--;
            continue;
        }
        const int is_list = k.kind == G4_RK_OR, n = is_list ? k.b : k.kind == G4_RK_CONCAT ? 2 : 1;
        const g4_re wider = k.kind == G4_RK_AND ? g4_re_unbounded(r, x, longest) : x;
        if (wider != x && r->nodes[wider].clamped == 0) g4_re_push(r, wider);
        for (int i = 0; i < n && k.kind != G4_RK_AND && !r->failed; i++) {
            const g4_re operand = is_list ? r->lists[k.a + i] : i == 0 ? k.a : k.b;
            if (r->nodes[operand].clamped == 0) g4_re_push(r, operand);
        }
        if (r->top > before) continue;
        r->top--;
        const g4_re clamped = wider != x ? g4_re_clamped(r, wider) : g4_re_clamp_one(r, x, longest);
        if (!r->failed) r->nodes[x].clamped = clamped + 1;
    }
    r->top = base;
    return r->failed ? G4_RE_NONE : g4_re_clamped(r, a);
}

/* ---- Looking into them --------------------------------------------------------------------------- */

void g4_re_print(const g4_regular *r, g4_re a, uint64_t print[2])
{
    memcpy(print, r->nodes[a].print, 2 * sizeof *print);
}

int g4_re_is_without(const g4_regular *r, g4_re a)
{
    return r->nodes[a].kind == G4_RK_NOT && !r->nodes[r->nodes[a].a].is_endless;
}

int g4_re_is_and(const g4_regular *r, g4_re a) { return r->nodes[a].kind == G4_RK_AND; }

int g4_re_n_operands(const g4_regular *r, g4_re a)
{
    const g4_re_node *k = &r->nodes[a];
    return k->kind == G4_RK_OR || k->kind == G4_RK_AND ? k->b : 0;
}

g4_re g4_re_operand(const g4_regular *r, g4_re a, int i) { return r->lists[r->nodes[a].a + i]; }

void g4_re_split(const g4_regular *r, g4_re a, g4_re *head, g4_re *rest)
{
    const g4_re_node *k = &r->nodes[a];
    *head = k->kind == G4_RK_CONCAT ? k->a : a;
    *rest = k->kind == G4_RK_CONCAT ? k->b : G4_RE_EMPTY;
}

int g4_re_is_byte(const g4_regular *r, g4_re a, const uint32_t **bytes, g4_re *rest)
{
    const g4_re_node *k = &r->nodes[a];
    const g4_re_node *head = k->kind == G4_RK_CONCAT ? &r->nodes[k->a] : k;
    if (head->kind != G4_RK_SET || k->is_checked) return 0;
    *bytes = r->sets[head->a].bits;
    *rest = k->kind == G4_RK_CONCAT ? k->b : G4_RE_EMPTY;
    return 1;
}

int g4_re_is_repeat(const g4_regular *r, g4_re a, g4_re *body, int32_t *min, int32_t *max)
{
    *body = r->nodes[a].a;
    *min = r->nodes[a].min;
    *max = r->nodes[a].max;
    return r->nodes[a].kind == G4_RK_REPEAT;
}

/* ---- Forgetting ---------------------------------------------------------------------------------- */

/* The new number of each expression onto the stack; those that are not kept get 0. */
static void g4_re_renumber(g4_regular *r, int32_t from, const g4_re *keep, int n)
{
    const int32_t end = r->n_nodes, base = r->top;
    for (int32_t i = 0; i < end; i++) g4_re_push(r, i < from ? i : 0);
    if (r->failed) return;
    int32_t *number = r->stack + base;
    for (int i = 0; i < n; i++)
        if (keep[i] >= from) number[keep[i]] = 1;
    for (int32_t i = end - 1; i >= from; i--) { /* operands have lower numbers than what they are operands of */
        const g4_re_node k = r->nodes[i];
        const int is_list = k.kind == G4_RK_OR || k.kind == G4_RK_AND;
        if (number[i] == 0 || k.kind < G4_RK_CONCAT || k.kind == G4_RK_LATER) continue;
        for (int j = 0; j < (is_list ? k.b : k.kind == G4_RK_CONCAT ? 2 : 1); j++) {
            const g4_re operand = is_list ? r->lists[k.a + j] : j == 0 ? k.a : k.b;
            if (operand >= from) number[operand] = 1;
        }
    }
    int32_t next = from;
    for (int32_t i = from; i < end; i++)
        if (number[i] != 0) number[i] = next++;
}

/* Fill the hash table with all expressions anew. */
static void g4_re_rehash(g4_regular *r)
{
    g4_table_clear(&r->table);
    for (int32_t i = 0; i < r->n_nodes; i++) {
        g4_re_node *k = &r->nodes[i];
        const int is_list = k->kind == G4_RK_OR || k->kind == G4_RK_AND;
        k->clamped = 0;
        k->hash = g4_re_hash(k, is_list ? r->lists + k->a : NULL);
        g4_table_put(&r->table, k->hash, i);
    }
}

void g4_regular_forget(g4_regular *r, int32_t from, g4_re *keep, int n)
{
    const int32_t end = r->n_nodes, base = r->top;
    int32_t n_lists = 0, n_nodes = from;
    if (from < r->defined) from = n_nodes = r->defined;
    if (from >= end) return;
    g4_re_renumber(r, from, keep, n);
    const int32_t *number = r->stack + base;
    r->top = base;
    if (r->failed) return;
    g4_re_forget_steps(r);
    for (int i = 0; i < n; i++) keep[i] = number[keep[i]];
    for (int32_t i = 0; i < end; i++) {
        g4_re_node k = r->nodes[i];
        const int is_list = k.kind == G4_RK_OR || k.kind == G4_RK_AND;
        if (is_list && i < from) n_lists = k.a + k.b;
        if (number[i] == 0 || i < from) continue;
        if (is_list) {
            for (int j = 0; j < k.b; j++) r->lists[n_lists + j] = number[r->lists[k.a + j]];
            k.a = n_lists;
            n_lists += k.b;
        } else if (k.kind > G4_RK_MULTIPLE && k.kind != G4_RK_LATER) {
            k.a = number[k.a];
            if (k.kind == G4_RK_CONCAT) k.b = number[k.b];
        }
        n_nodes = number[i] + 1;
        r->nodes[number[i]] = k;
    }
    r->n_nodes = n_nodes;
    r->n_lists = n_lists;
    memset(r->classes, 0, sizeof r->classes);
    for (int i = 0; i < 2; i++)
        if (r->any_text[i] >= from || r->no_text[i] >= from || r->any_char[i] >= from)
            r->any_text[i] = r->no_text[i] = r->any_char[i] = 0;
    g4_re_rehash(r);
}
