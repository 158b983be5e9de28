/* shape.c - JSON Schema to a normal form: the objects, or arrays, that meet a goal, as a union of shapes. A claim is
 * taken apart into facts: what holds for the member of a name, for the elements from one on, for the number of them.
 * What holds one way or another is a choice; a branch makes one of the alternatives of each, those that contradict the
 * branch left out, and becomes a shape. A denied schema is the choice of which keyword is broken. What
 * unevaluatedProperties and unevaluatedItems speak of is known when a branch is complete. Members and elements are
 * goals again, which whoever builds from shapes asks for by number, so that recursion needs nothing special. The work
 * is bounded: where choices multiply beyond the limit, they are loosened, first those that only exclude. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define G4_SHAPE_MAX_SHAPES 300    /* of a goal and type, beside those that constants tell apart */
#define G4_SHAPE_MAX_BRANCHES 4000 /* that are begun for them, */
#define G4_SHAPE_MAX_ADDED 80000   /* and facts that are put into these branches */
#define G4_SHAPE_MIN_CASES 3       /* ifs on one member that are one choice */
#define G4_SHAPE_MAX_APART 5000    /* alternatives of a choice that constants tell apart */
#define G4_SHAPE_MAX_WORK 4000000  /* steps of an attempt at the shapes of a goal, */
#define G4_SHAPE_MAX_ALL 30000000  /* and of all attempts of a grammar */
#define G4_SHAPE_MAX_FACTS 3000000 /* of a grammar: then choices are not looked into any more */
#define G4_SHAPE_MAX_CHAIN 200     /* claims within claims, in place */
#define G4_SHAPE_EMPTY_DEPTH 3     /* members of members that are looked at to see whether a goal is empty */
#define G4_SHAPE_MAX_PAIRS 4000    /* of branches of oneOf that are compared */
#define G4_SHAPE_MAX_FREE 4        /* members that may stand in any order among undeclared ones */
#define G4_SHAPE_MAX_FOREIGN 300   /* names of other alternatives that have a place among an object's members */
#define G4_SHAPE_MAX_GENERAL 64    /* facts on undeclared keys: bits of g4_key_class */
#define G4_SHAPE_MAX_OVERLAPS 48   /* classes of undeclared keys more than there are facts on them */
#define G4_SHAPE_MAX_CLASSES (G4_SHAPE_MAX_OVERLAPS + G4_SHAPE_MAX_GENERAL + G4_SHAPE_SOME)
#define G4_SHAPE_MAX_SUBSETS 5    /* branches of anyOf whose subsets are told apart for unevaluated... */
#define G4_SHAPE_MAX_BESIDE 100   /* schemas of other alternatives that are looked at for the order of members */
#define G4_SHAPE_MAX_RANKED 5000  /* goals of a grammar up to which they are */
#define G4_SHAPE_MAX_COMPARED 200 /* elements of a constant that must differ */
#define G4_SHAPE_UNRANKED INT_MAX

typedef enum {
    G4_FACT_CLAIM, /* the value meets the claim */
    G4_FACT_NEED,  /* `min`: a formula over the presence of members */
    G4_FACT_KEYS,  /* members whose keys match meet the claim */
    G4_FACT_KEY,   /* a member whose key matches is there and meets the claim */
    G4_FACT_COUNT, /* min to max members or elements */
    G4_FACT_ITEMS, /* elements min to max meet the claim */
    G4_FACT_ITEM,  /* min to max of the elements from `from` on meet the claim */
    G4_FACT_UNIQUE /* no two elements are equal */
} g4_fact_kind;

typedef struct g4_fact g4_fact;
struct g4_fact {
    g4_fact_kind kind;
    g4_claim claim;
    const g4_matcher *keys;
    int min, max, from;
    int order, serial;         /* by these, claims of one member stand in the order of the document */
    int tracker;               /* the innermost schema with unevaluated... that this is evaluated for; -1: none */
    const g4_fact *from_claim; /* the claim that this comes from */
    const g4_fact *same;       /* of a claim that is taken up: the one of the same schema before it */
};

typedef struct g4_facts g4_facts; /* lists grow at their head and are never changed: branches share what they have */
struct g4_facts {
    const g4_fact *fact;
    const g4_facts *next;
};

typedef struct g4_alternative g4_alternative;
struct g4_alternative {
    const g4_facts *facts;
    const g4_alternative *next;
};

typedef struct g4_split g4_split;
struct g4_split {
    const g4_alternative *alternatives;
    const g4_json *node; /* where it comes from */
    int is_exclusion;    /* it only shuts out: the first to be loosened */
    int is_apart;        /* constants tell its alternatives apart */
    const g4_split *next;
};

typedef struct g4_tracker g4_tracker;
struct g4_tracker { /* a schema with unevaluatedProperties or unevaluatedItems */
    int id, parent;
    const g4_json *keyword;
    const g4_fact *claim;
    const g4_tracker *next;
};

typedef struct g4_evaluated g4_evaluated;
struct g4_evaluated { /* what a tracker's schema has evaluated */
    int tracker;
    const g4_fact *fact; /* KEYS, ITEMS or ITEM */
    const g4_evaluated *next;
};

typedef struct {
    const g4_facts *todo, *done, *keys, *key, *items, *item, *required;
    const g4_split *choices;
    const g4_tracker *trackers;
    const g4_evaluated *evaluated;
    int need, min, max, n_trackers;
    const g4_json *value;            /* the constant that it is, as far as is known */
    int is_dead, is_unique, is_open; /* is_open: it says itself what undeclared members are */
    int has_lost;                    /* a choice was left out that may say what is evaluated */
} g4_branch;

typedef struct {
    g4_shaper *sh;
    int type;  /* G4_T_ARRAY or G4_T_OBJECT */
    int level; /* 0: everything is held, 1: exclusions are not, 2: one choice is, 3: none is */
    int empty_depth;
    int64_t work_end;    /* of sh->work, up to which the attempt may go */
    int has_exclusions;  /* is there something that only shuts out? */
    const g4_json *node; /* for warnings */
} g4_expansion;

static const g4_json g4_shape_true = { .kind = G4_JSON_TRUE }, g4_shape_false = { .kind = G4_JSON_FALSE };

/* ---- Lists of facts ------------------------------------------------------------------------------ */

static const g4_facts *g4_facts_add(g4_shaper *sh, const g4_facts *list, const g4_fact *fact)
{
    g4_facts *head = g4_arena_alloc(sh->arena, sizeof *head);
    sh->no_memory |= head == NULL;
    if (head == NULL || fact == NULL) return list;
    *head = (g4_facts) { fact, list };
    return head;
}

static const g4_fact *g4_fact_new(g4_shaper *sh, g4_fact fact)
{
    g4_fact *own = g4_arena_alloc(sh->arena, sizeof *own);
    sh->no_memory |= own == NULL;
    if (own == NULL) return NULL;
    *own = fact;
    own->serial = sh->n_facts++;
    return own;
}

/* A fact that the claim `from` gives rise to. */
static g4_fact g4_fact_from(const g4_fact *from, g4_fact_kind kind)
{
    return (g4_fact) { .kind = kind, .order = from->order, .tracker = from->tracker, .from_claim = from };
}

static g4_fact g4_fact_claim(g4_shaper *sh, const g4_fact *from, const g4_json *node, int denied)
{
    g4_fact fact = g4_fact_from(from, G4_FACT_CLAIM);
    fact.claim = (g4_claim) { node, 0, (uint8_t)denied };
    if (denied) fact.tracker = -1;
    const g4_schema_info *info = denied ? NULL : g4_shaper_info(sh, node);
    fact.order = info != NULL && info->walked == sh->walk ? info->order : G4_SHAPE_UNRANKED;
    return fact;
}

static g4_fact g4_fact_keys(const g4_fact *from, g4_fact_kind kind, const g4_matcher *keys, g4_claim claim)
{
    g4_fact fact = g4_fact_from(from, kind);
    fact.keys = keys;
    fact.claim = claim;
    return fact;
}

static g4_fact g4_fact_numbers(const g4_fact *from, g4_fact_kind kind, int min, int max)
{
    g4_fact fact = g4_fact_from(from, kind);
    fact.min = min;
    fact.max = max;
    return fact;
}

static void g4_branch_add(g4_shaper *sh, g4_branch *b, g4_fact fact)
{
    b->todo = g4_facts_add(sh, b->todo, g4_fact_new(sh, fact));
}

/* ---- Choices ------------------------------------------------------------------------------------- */

typedef struct { /* one that is being made */
    g4_shaper *sh;
    g4_split choice;
    const g4_alternative **last;
    int n, holds; /* holds: whatever is chosen, so that there is no choice */
} g4_choosing;

static void g4_choosing_open(g4_choosing *k, g4_shaper *sh, const g4_json *node, int is_exclusion)
{
    *k = (g4_choosing) { .sh = sh, .choice = { .node = node, .is_exclusion = is_exclusion } };
    k->last = &k->choice.alternatives;
}

static void g4_choosing_add(g4_choosing *k, const g4_facts *facts)
{
    g4_alternative *alternative = g4_arena_alloc(k->sh->arena, sizeof *alternative);
    k->sh->no_memory |= alternative == NULL;
    if (alternative == NULL) return;
    *alternative = (g4_alternative) { facts, NULL };
    *k->last = alternative;
    k->last = &alternative->next;
    k->n++;
    k->holds |= facts == NULL;
}

static void g4_choosing_add_fact(g4_choosing *k, g4_fact fact)
{
    g4_choosing_add(k, g4_facts_add(k->sh, NULL, g4_fact_new(k->sh, fact)));
}

static void g4_choosing_add_two(g4_choosing *k, g4_fact a, g4_fact b)
{
    g4_shaper *sh = k->sh;
    g4_choosing_add(k, g4_facts_add(sh, g4_facts_add(sh, NULL, g4_fact_new(sh, a)), g4_fact_new(sh, b)));
}

/* The choice belongs to the branch from now on. */
static void g4_choosing_close(g4_choosing *k, g4_branch *b)
{
    if (k->holds) return;
    if (k->n == 0) {
        b->is_dead = 1;
        return;
    }
    if (k->n == 1) {
        for (const g4_facts *f = k->choice.alternatives->facts; f != NULL; f = f->next)
            b->todo = g4_facts_add(k->sh, b->todo, f->fact);
        return;
    }
    g4_split *own = g4_arena_alloc(k->sh->arena, sizeof *own);
    k->sh->no_memory |= own == NULL;
    if (own == NULL) return;
    *own = k->choice;
    own->next = b->choices;
    b->choices = own;
}

/* ---- Goals that nothing meets -------------------------------------------------------------------- */

/* Has an attempt taken too many steps? The last one, which looks into no choice, may. */
static int g4_expansion_is_over(const g4_expansion *x)
{
    return x->level < 3 && x->sh->work > (x->work_end < G4_SHAPE_MAX_ALL ? x->work_end : G4_SHAPE_MAX_ALL);
}

static void g4_branch_run(g4_expansion *x, g4_branch *b);
static int g4_goal_is_empty(g4_expansion *x, int goal);

static void g4_branch_evaluate_all(g4_expansion *x, g4_branch *b, const g4_fact *from);
static int g4_list_is_discriminated(g4_expansion *x, const g4_json *list);
static int g4_count_branches(g4_expansion *x, const g4_json *list);
static const g4_matcher *g4_value_keys(g4_shaper *sh, const g4_json *v, int is_complement);

/* The goal of a member of that name in the branch. */
static int g4_branch_member(g4_expansion *x, const g4_branch *b, int32_t name);
static int g4_items_goal(g4_shaper *sh, const g4_facts *items, int index);

/* Is it plain that no array, or object, meets all the claims? Choices are not looked into. */
static int g4_claims_are_empty(g4_expansion *x, int type, const g4_claim *claims, int n)
{
    g4_shaper *sh = x->sh;
    if (x->empty_depth >= G4_SHAPE_EMPTY_DEPTH || sh->n_facts > G4_SHAPE_MAX_FACTS) return 0;
    for (int i = 0; i < n; i++)
        if (!g4_claim_may(sh, claims[i], type)) return 1;
    sh->work += 50;
    g4_expansion inner = { .sh = sh, .type = type, .level = 3, .empty_depth = x->empty_depth + 1, .node = x->node };
    g4_branch b = { .need = G4_NEED_ALWAYS, .max = -1 };
    for (int i = 0; i < n; i++)
        g4_branch_add(sh, &b, (g4_fact) { .kind = G4_FACT_CLAIM, .claim = claims[i], .tracker = -1 });
    g4_branch_run(&inner, &b);
    int is_empty = b.is_dead;
    for (const g4_facts *f = b.required; f != NULL && !is_empty; f = f->next)
        is_empty = g4_goal_is_empty(&inner, g4_branch_member(&inner, &b, f->fact->from));
    for (int i = 0; type == G4_T_ARRAY && i < b.min && i < 4 && !is_empty; i++)
        is_empty = g4_goal_is_empty(&inner, g4_items_goal(sh, b.items, i));
    return is_empty;
}

/* Is it plain that nothing meets the goal? */
static int g4_goal_is_empty(g4_expansion *x, int number)
{
    g4_shaper *sh = x->sh;
    if (number <= G4_GOAL_ANY) return number == G4_GOAL_NONE;
    if (x->empty_depth >= G4_SHAPE_EMPTY_DEPTH) return 0;
    const g4_scalars k = *g4_goal_scalars(sh, number);
    if (k.null || k.no || k.yes || k.number != G4_RE_NONE || k.string != G4_RE_NONE) return 0;
    g4_goal *goal = sh->goals[number];
    if (goal->is_known_empty) return goal->is_known_empty == 1;
    const int is_empty = g4_claims_are_empty(x, G4_T_OBJECT, goal->claims, goal->n) &&
                         g4_claims_are_empty(x, G4_T_ARRAY, goal->claims, goal->n);
    if (is_empty || x->empty_depth == 0) goal->is_known_empty = is_empty ? 1 : 2;
    return is_empty;
}

/* Can no value of the type be valid for both schemas? */
static int g4_schemas_exclude(g4_expansion *x, const g4_json *a, const g4_json *b)
{
    const g4_claim both[2] = { { a, 0, 0 }, { b, 0, 0 } };
    return g4_claims_are_empty(x, x->type, both, 2);
}

/* ---- anyOf, oneOf, if ---------------------------------------------------------------------------- */

static g4_claim g4_claim_on(const g4_json *node, int denied) { return (g4_claim) { node, 0, (uint8_t)denied }; }

/* Do all of the branches speak of the presence of members only? Then that is one fact. */
static int g4_branches_are_needs(g4_expansion *x, g4_branch *b, const g4_fact *from, const g4_json *list, int is_one)
{
    g4_shaper *sh = x->sh;
    const int n_too_deep = sh->n_too_deep;
    int n, none, need = G4_NEED_NEVER;
    if (x->type != G4_T_OBJECT || from->tracker >= 0) return 0;
    int *needs = g4_presences(sh, list, &n);
    if (needs == NULL) return 0;
    sh->presences++; /* what is too deep is not loosened, but taken for branches */
    if (is_one) need = g4_need_exactly_one(sh, needs, n, &none);
    for (int i = 0; i < n && !is_one; i++) need = g4_need_or(sh, need, needs[i]);
    sh->presences--;
    g4_free(sh->a, needs);
    if (sh->n_too_deep > n_too_deep) return 0;
    g4_branch_add(sh, b, g4_fact_numbers(from, G4_FACT_NEED, need, 0));
    return 1;
}

/* The branches that hold count for what is evaluated, so that each set of them is an alternative of its own. */
static void g4_choose_subsets(g4_expansion *x, g4_branch *b, const g4_fact *from, const g4_json *list)
{
    g4_shaper *sh = x->sh;
    const g4_json *schemas[G4_SHAPE_MAX_SUBSETS];
    g4_choosing k;
    int n = 0;
    for (const g4_json *s = list->child; s != NULL; s = s->next)
        if (g4_claim_may(sh, g4_claim_on(s, 0), x->type)) schemas[n++] = s;
    g4_choosing_open(&k, sh, list, 0);
    for (unsigned set = 1; set < 1u << n; set++) {
        const g4_facts *facts = NULL;
        for (int i = 0; i < n; i++)
            facts = g4_facts_add(sh, facts, g4_fact_new(sh, g4_fact_claim(sh, from, schemas[i], !(set >> i & 1))));
        g4_choosing_add(&k, facts);
    }
    g4_choosing_close(&k, b);
}

/* What the schema may evaluate counts as evaluated, whether it holds or not: the members that it names, or all. */
static void g4_branch_may_evaluate(g4_expansion *x, g4_branch *b, const g4_fact *from, const g4_json *schema)
{
    g4_shaper *sh = x->sh;
    g4_claim claim = g4_claim_on(schema, 0);
    const int found = g4_claim_settle(sh, &claim);
    if (found != 2 || claim.is_denied) {
        if (found == 1 && g4_claim_is_loose(&claim)) g4_branch_evaluate_all(x, b, from);
        return;
    }
    const g4_schema_info *info = g4_shaper_info(sh, claim.node);
    for (const g4_json *m = g4_schema_member(info, NULL); m != NULL; m = g4_schema_member(info, m)) {
        const g4_keyword keyword = g4_keyword_of(m);
        if (keyword == G4_KEY_OTHER || keyword == G4_KEY_TYPE || keyword == G4_KEY_REQUIRED) continue;
        if (keyword != G4_KEY_PROPERTIES || m->kind != G4_JSON_OBJECT || x->type != G4_T_OBJECT) {
            g4_branch_evaluate_all(x, b, from);
            return;
        }
        g4_branch_add(sh, b, g4_fact_keys(from, G4_FACT_KEYS, g4_value_keys(sh, m, 0), g4_claim_on(&g4_shape_true, 0)));
    }
}

/* Can the sets of branches of anyOf that hold be told apart? Else what any of them evaluates counts. */
static int g4_branches_have_subsets(g4_expansion *x, g4_branch *b, const g4_fact *from, const g4_json *list)
{
    const int n = g4_count_branches(x, list);
    if (n <= G4_SHAPE_MAX_SUBSETS && x->level == 0) return 1;
    if (n > G4_SHAPE_MAX_SUBSETS)
        g4_shaper_loosen(x->sh, x->node, list->key,
                         "more than %d alternatives beside unevaluated...: what any of them allows may be there",
                         G4_SHAPE_MAX_SUBSETS);
    for (const g4_json *s = list->child; s != NULL; s = s->next) g4_branch_may_evaluate(x, b, from, s);
    return 0;
}

static void g4_choose_any(g4_expansion *x, g4_branch *b, const g4_fact *from, const g4_json *list)
{
    g4_shaper *sh = x->sh;
    g4_choosing k;
    if (g4_branches_are_needs(x, b, from, list, 0)) return;
    if (from->tracker >= 0 && g4_branches_have_subsets(x, b, from, list)) {
        g4_choose_subsets(x, b, from, list);
        return;
    }
    g4_choosing_open(&k, sh, list, 0);
    k.choice.is_apart = g4_count_branches(x, list) > G4_SHAPE_MAX_SHAPES && g4_list_is_discriminated(x, list);
    for (const g4_json *s = list->child; s != NULL && !g4_shaper_stops(sh); s = s->next) {
        if (!g4_claim_may(sh, g4_claim_on(s, 0), x->type)) continue;
        g4_claim claim = g4_claim_on(s, 0);
        if (from->tracker < 0 && g4_claim_settle(sh, &claim) == 1)
            k.holds = 1;
        else
            g4_choosing_add_fact(&k, g4_fact_claim(sh, from, s, 0));
    }
    g4_choosing_close(&k, b);
}

static int g4_constant_compare(const void *pa, const void *pb)
{
    const g4_json *a = *(const g4_json *const *)pa, *b = *(const g4_json *const *)pb;
    if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
    if (a->kind == G4_JSON_NUMBER) return (a->number > b->number) - (a->number < b->number);
    if (a->kind != G4_JSON_STRING) return 0;
    const size_t n = a->text_len < b->text_len ? a->text_len : b->text_len;
    const int order = n > 0 ? memcmp(a->text, b->text, n) : 0;
    return order != 0 ? order : (a->text_len > b->text_len) - (a->text_len < b->text_len);
}

static const g4_json *g4_settled_schema(g4_shaper *sh, const g4_json *s)
{
    g4_claim claim = g4_claim_on(s, 0);
    if (s == NULL || g4_claim_settle(sh, &claim) != 2 || claim.is_denied) return NULL;
    return claim.node;
}

typedef struct {
    const g4_json **all;
    int n, cap;
} g4_constants;

/* Append the constants that a required member of that name may be; 0: it may be others. */
static int g4_discriminator_values(g4_shaper *sh, const g4_json *schema, const g4_json *name, g4_constants *out)
{
    const g4_json *s = g4_settled_schema(sh, schema), *required = g4_json_get(s, "required");
    const g4_json *property = g4_settled_schema(sh, g4_json_get(g4_json_get(s, "properties"), name->text));
    const g4_json *value = g4_json_get(property, "const"), *list = g4_json_get(property, "enum");
    int is_required = 0;
    for (const g4_json *q = g4_json_is(required, G4_JSON_ARRAY) ? required->child : NULL; q != NULL; q = q->next)
        is_required |= g4_json_equal(q, name);
    if (!is_required || (value == NULL && !g4_json_is(list, G4_JSON_ARRAY))) return 0;
    for (const g4_json *v = value != NULL ? value : list->child; v != NULL; v = value != NULL ? NULL : v->next) {
        if (v->kind == G4_JSON_ARRAY || v->kind == G4_JSON_OBJECT) return 0;
        const g4_json **all = g4_array_grow(sh->a, out->all, out->n, &out->cap, sizeof *all);
        sh->no_memory |= all == NULL;
        if (all == NULL) return 0;
        out->all = all;
        all[out->n++] = v;
    }
    return 1;
}

/* Do all schemas of the list require a member of one name whose constants differ? */
static int g4_list_is_discriminated(g4_expansion *x, const g4_json *list)
{
    g4_shaper *sh = x->sh;
    g4_constants values = { NULL, 0, 0 };
    const g4_json *first = g4_settled_schema(sh, list->child), *required = g4_json_get(first, "required");
    int tries = 0, fits = 0;
    if (x->type != G4_T_OBJECT) return 0;
    for (const g4_json *name = g4_json_is(required, G4_JSON_ARRAY) ? required->child : NULL;
         name != NULL && tries < 8 && !fits; name = name->next, tries++) {
        values.n = 0;
        fits = name->kind == G4_JSON_STRING;
        for (const g4_json *s = list->child; s != NULL && fits; s = s->next)
            fits = g4_discriminator_values(sh, s, name, &values);
        if (!fits) continue;
        if (!g4_sort(sh->a, values.all, (size_t)values.n, sizeof *values.all, g4_constant_compare, sh->asker.halt))
            sh->no_memory = 1;
        for (int i = 1; i < values.n && fits; i++) fits = g4_constant_compare(&values.all[i - 1], &values.all[i]) != 0;
    }
    g4_free(sh->a, values.all);
    return fits;
}

/* The branches of a list that a value of the type may be valid for. */
static int g4_count_branches(g4_expansion *x, const g4_json *list)
{
    int n = 0;
    for (const g4_json *s = list->child; s != NULL; s = s->next) n += g4_claim_may(x->sh, g4_claim_on(s, 0), x->type);
    return n;
}

/* One branch of oneOf, and, unless it is alone, none of the others that a value of it may be valid for. */
static const g4_facts *g4_one_of_facts(g4_expansion *x, const g4_fact *from, const g4_json *list, const g4_json *branch,
                                       int is_alone)
{
    g4_shaper *sh = x->sh;
    const g4_facts *facts = NULL;
    for (const g4_json *s = is_alone ? NULL : list->child; s != NULL && !g4_shaper_stops(sh); s = s->next) {
        if (s == branch || !g4_claim_may(sh, g4_claim_on(s, 0), x->type)) continue;
        if (g4_schemas_exclude(x, branch, s)) continue;
        facts = g4_facts_add(sh, facts, g4_fact_new(sh, g4_fact_claim(sh, from, s, 1)));
    }
    return g4_facts_add(sh, facts, g4_fact_new(sh, g4_fact_claim(sh, from, branch, 0)));
}

static void g4_choose_one(g4_expansion *x, g4_branch *b, const g4_fact *from, const g4_json *list)
{
    g4_shaper *sh = x->sh;
    g4_choosing k;
    if (g4_branches_are_needs(x, b, from, list, 1)) return;
    const int64_t n = g4_count_branches(x, list);
    const int is_apart = g4_list_is_discriminated(x, list), are_many = n * (n - 1) > G4_SHAPE_MAX_PAIRS;
    if (!is_apart && are_many)
        g4_shaper_loosen(sh, x->node, "oneOf", "more than %d pairs of branches: a value may be valid for several",
                         G4_SHAPE_MAX_PAIRS);
    x->has_exclusions |= !is_apart && !are_many && n > 1;
    g4_choosing_open(&k, sh, list, 0);
    k.choice.is_apart = is_apart;
    for (const g4_json *s = list->child; s != NULL && !g4_shaper_stops(sh); s = s->next) {
        if (!g4_claim_may(sh, g4_claim_on(s, 0), x->type)) continue;
        g4_choosing_add(&k, g4_one_of_facts(x, from, list, s, is_apart || are_many || x->level > 0));
    }
    g4_choosing_close(&k, b);
}

/* (if and then) or (not if and else); denied: the same of what is denied of then and else. */
static void g4_choose_if(g4_expansion *x, g4_branch *b, const g4_fact *from, const g4_json *condition, int denied)
{
    static const g4_json nothing = { .kind = G4_JSON_TRUE };
    g4_shaper *sh = x->sh;
    const g4_json *s = from->claim.node, *then = g4_json_get(s, "then"), *other = g4_json_get(s, "else");
    g4_choosing k;
    if (then == NULL) then = &nothing;
    if (other == NULL) other = &nothing;
    if (then == other && from->tracker < 0) {
        b->is_dead |= denied;
        return;
    }
    g4_choosing_open(&k, sh, condition, 1);
    if (g4_claim_may(sh, g4_claim_on(condition, 0), x->type))
        g4_choosing_add_two(&k, g4_fact_claim(sh, from, condition, 0), g4_fact_claim(sh, from, then, denied));
    g4_choosing_add_two(&k, g4_fact_claim(sh, from, condition, 1), g4_fact_claim(sh, from, other, denied));
    g4_choosing_close(&k, b);
}

/* ---- Many ifs on one member ---------------------------------------------------------------------- */

/* allOf of `if` one member is this constant, `then` something: for each constant there is one alternative, and one for
 * all other values, where each `if` alone would double them. */
typedef struct {
    const g4_json *schema, *condition, *then, *property; /* property: of the member, with const or enum */
    const g4_json *value;                                /* the first that it may be */
} g4_case;

typedef struct {
    g4_case *all;
    int n, cap;
    const g4_json *name; /* the member's property */
    int is_required;     /* does the condition fail where it is missing? */
} g4_cases;

/* The one member of a condition that says nothing else; NULL: it says more. */
static const g4_json *g4_condition_member(g4_shaper *sh, const g4_json *condition, int *is_required)
{
    const g4_json *s = g4_settled_schema(sh, condition), *property = NULL, *required = NULL;
    const g4_schema_info *info = s != NULL ? g4_shaper_info(sh, s) : NULL;
    for (const g4_json *m = s != NULL ? g4_schema_member(info, NULL) : NULL; m != NULL; m = g4_schema_member(info, m)) {
        const g4_keyword keyword = g4_keyword_of(m);
        if (keyword == G4_KEY_OTHER) continue;
        if (keyword == G4_KEY_PROPERTIES && m->kind == G4_JSON_OBJECT && m->child != NULL && m->child->next == NULL)
            property = m->child;
        else if (keyword == G4_KEY_REQUIRED && m->kind == G4_JSON_ARRAY && m->child != NULL && m->child->next == NULL)
            required = m->child;
        else
            return NULL;
    }
    *is_required = required != NULL;
    if (property == NULL || required == NULL) return property;
    const int is_same = required->kind == G4_JSON_STRING && required->text_len == property->key_len &&
                        memcmp(required->text, property->key, property->key_len) == 0;
    return is_same ? property : NULL;
}

/* The constant that is all a member may be, where two such are equal only if they are written alike; NULL: others. */
static const g4_json *g4_case_constant(g4_shaper *sh, const g4_json *property)
{
    const g4_json *s = g4_settled_schema(sh, property), *value = NULL;
    const g4_schema_info *info = s != NULL ? g4_shaper_info(sh, s) : NULL;
    for (const g4_json *m = s != NULL ? g4_schema_member(info, NULL) : NULL; m != NULL; m = g4_schema_member(info, m)) {
        const g4_keyword keyword = g4_keyword_of(m);
        if (keyword == G4_KEY_CONST)
            value = m;
        else if (keyword == G4_KEY_ENUM && m->kind == G4_JSON_ARRAY && m->child != NULL && m->child->next == NULL)
            value = m->child;
        else if (keyword != G4_KEY_OTHER)
            return NULL;
    }
    if (value == NULL || value->kind == G4_JSON_ARRAY || value->kind == G4_JSON_OBJECT) return NULL;
    const int is_integer =
        value->kind != G4_JSON_NUMBER || (fabs(value->number) < 9e15 && value->number == floor(value->number));
    return is_integer ? value : NULL;
}

static int g4_case_read(g4_shaper *sh, const g4_json *schema, g4_case *out, const g4_json **name, int *is_required)
{
    const g4_json *s = g4_settled_schema(sh, schema);
    const g4_schema_info *info = s != NULL ? g4_shaper_info(sh, s) : NULL;
    *out = (g4_case) { .schema = schema };
    for (const g4_json *m = s != NULL ? g4_schema_member(info, NULL) : NULL; m != NULL; m = g4_schema_member(info, m)) {
        if (g4_keyword_of(m) == G4_KEY_IF)
            out->condition = m;
        else if (g4_keyword_of(m) != G4_KEY_OTHER || g4_json_key_is(m, "else"))
            return 0;
    }
    if (out->condition == NULL) return 0;
    out->then = g4_json_get(s, "then");
    *name = g4_condition_member(sh, out->condition, is_required);
    out->value = *name != NULL && out->then != NULL ? g4_case_constant(sh, *name) : NULL;
    return out->value != NULL;
}

/* Those of the list that speak of the same member as its first does, sorted by value. */
static void g4_cases_collect(g4_shaper *sh, g4_cases *k, const g4_json *list)
{
    for (const g4_json *s = list->child; s != NULL && !g4_shaper_stops(sh); s = s->next) {
        g4_case one;
        const g4_json *name;
        int is_required;
        if (!g4_case_read(sh, s, &one, &name, &is_required)) continue;
        if (k->name == NULL) {
            k->name = name;
            k->is_required = is_required;
        }
        if (is_required != k->is_required || name->key_len != k->name->key_len ||
            memcmp(name->key, k->name->key, name->key_len) != 0)
            continue;
        g4_case *all = g4_array_grow(sh->a, k->all, k->n, &k->cap, sizeof *all);
        sh->no_memory |= all == NULL;
        if (all == NULL) return;
        k->all = all;
        one.property = name;
        all[k->n++] = one;
    }
}

static int g4_case_compare(const void *pa, const void *pb)
{
    const g4_json *a = ((const g4_case *)pa)->value, *b = ((const g4_case *)pb)->value;
    return g4_constant_compare(&a, &b);
}

/* Append that the member is none of the constants. */
static void g4_cases_add_others(g4_choosing *k, const g4_fact *from, const g4_cases *cases, int32_t name)
{
    g4_shaper *sh = k->sh;
    g4_json *schema = g4_arena_alloc(sh->arena, 2 * sizeof *schema);
    g4_json *values = g4_arena_alloc(sh->arena, (size_t)cases->n * sizeof *values);
    int n = 0;
    sh->no_memory |= schema == NULL || values == NULL;
    if (schema == NULL || values == NULL) return;
    for (int i = 0; i < cases->n; i++) {
        if (i > 0 && g4_case_compare(&cases->all[i - 1], &cases->all[i]) == 0) continue;
        values[n] = *cases->all[i].value;
        values[n].key = NULL;
        values[n].next = NULL;
        if (n > 0) values[n - 1].next = &values[n];
        n++;
    }
    schema[1] = (g4_json) { .kind = G4_JSON_ARRAY, .key = "enum", .key_len = 4, .child = values };
    schema[0] = (g4_json) { .kind = G4_JSON_OBJECT, .child = &schema[1] };
    g4_fact differs = g4_fact_keys(from, G4_FACT_KEYS, sh->names[name].matcher, g4_claim_on(schema, 1));
    differs.tracker = -1;
    g4_choosing_add_two(k, g4_fact_numbers(from, G4_FACT_NEED, g4_need_var(sh, name), 0), differs);
}

/* One choice for the ifs of the list on one member; what it covers is noted at these schemas, by the list. */
static void g4_choose_case(g4_expansion *x, g4_branch *b, const g4_fact *from, const g4_json *list)
{
    g4_shaper *sh = x->sh;
    g4_cases cases = { .n = 0 };
    g4_choosing k;
    g4_cases_collect(sh, &cases, list);
    if (cases.n < G4_SHAPE_MIN_CASES || sh->no_memory ||
        !g4_sort(sh->a, cases.all, (size_t)cases.n, sizeof *cases.all, g4_case_compare, sh->asker.halt)) {
        g4_free(sh->a, cases.all);
        return;
    }
    const int32_t name = g4_shaper_name(sh, cases.name->key, cases.name->key_len);
    const int there = g4_need_var(sh, name);
    const g4_facts *missing =
        g4_facts_add(sh, NULL, g4_fact_new(sh, g4_fact_numbers(from, G4_FACT_NEED, g4_need_not(sh, there), 0)));
    g4_choosing_open(&k, sh, list, 1);
    k.choice.is_apart = 1;
    for (int i = 0, next; i < cases.n && !g4_shaper_stops(sh); i = next) {
        const g4_facts *facts = NULL;
        for (next = i; next < cases.n && g4_case_compare(&cases.all[i], &cases.all[next]) == 0; next++) {
            facts = g4_facts_add(sh, facts, g4_fact_new(sh, g4_fact_claim(sh, from, cases.all[next].then, 0)));
            facts = g4_facts_add(sh, facts, g4_fact_new(sh, g4_fact_claim(sh, from, cases.all[next].condition, 0)));
        }
        facts = g4_facts_add(sh, facts, g4_fact_new(sh, g4_fact_numbers(from, G4_FACT_NEED, there, 0)));
        g4_choosing_add(&k, facts);
    }
    for (int i = 0; i < cases.n; i++) {
        g4_shaper_info(sh, cases.all[i].schema)->case_of = list;
        if (cases.is_required) continue;
        missing = g4_facts_add(sh, missing, g4_fact_new(sh, g4_fact_claim(sh, from, cases.all[i].condition, 0)));
        missing = g4_facts_add(sh, missing, g4_fact_new(sh, g4_fact_claim(sh, from, cases.all[i].then, 0)));
    }
    g4_choosing_add(&k, missing);
    g4_cases_add_others(&k, from, &cases, name);
    g4_choosing_close(&k, b);
    g4_free(sh->a, cases.all);
}

/* All schemas of the list are met. */
static void g4_assert_all(g4_expansion *x, g4_branch *b, const g4_fact *from, const g4_json *list)
{
    g4_shaper *sh = x->sh;
    if (list->kind != G4_JSON_ARRAY) return;
    for (const g4_json *s = list->child; s != NULL; s = s->next) g4_shaper_info(sh, s)->case_of = NULL;
    if (x->type == G4_T_OBJECT && x->level < 3) g4_choose_case(x, b, from, list);
    for (const g4_json *s = list->child; s != NULL; s = s->next)
        if (g4_shaper_info(sh, s)->case_of != list) g4_branch_add(sh, b, g4_fact_claim(sh, from, s, 0));
}

/* ---- Keywords of objects that must be met -------------------------------------------------------- */

static void g4_assert_properties(g4_shaper *sh, g4_branch *b, const g4_fact *from, const g4_json *properties)
{
    for (const g4_json *p = properties->child; p != NULL && !g4_shaper_stops(sh); p = p->next) {
        const int32_t name = g4_shaper_name(sh, p->key, p->key_len);
        g4_branch_add(sh, b, g4_fact_keys(from, G4_FACT_KEYS, sh->names[name].matcher, g4_claim_on(p, 0)));
    }
}

static void g4_assert_patterns(g4_shaper *sh, g4_branch *b, const g4_fact *from, const g4_json *patterns)
{
    for (const g4_json *p = patterns->child; p != NULL && !g4_shaper_stops(sh); p = p->next) {
        const g4_re re = g4_pattern_keys(sh, from->claim.node, p);
        if (re == G4_RE_LOOSE) continue;
        const g4_matcher *keys = g4_matcher_new(sh, NULL, 0, re, 0);
        g4_branch_add(sh, b, g4_fact_keys(from, G4_FACT_KEYS, keys, g4_claim_on(p, 0)));
    }
}

/* The keys that a schema allows or denies as names; NULL: all, or none, as *is_all says. */
static const g4_matcher *g4_name_matcher(g4_shaper *sh, const g4_json *s, int denied, int *is_all)
{
    g4_claim claim = g4_claim_on(s, denied);
    const int found = g4_claim_settle(sh, &claim);
    const g4_re string = found == 2 ? g4_claim_scalars(sh, claim).string : found == 1 ? G4_RE_ANY : G4_RE_NONE;
    *is_all = string == G4_RE_ANY;
    if (string == G4_RE_ANY || string == G4_RE_NONE) return NULL;
    return g4_matcher_new(sh, NULL, 0, string, 0);
}

static void g4_assert_names(g4_shaper *sh, g4_branch *b, const g4_fact *from, const g4_json *names)
{
    int is_all;
    const g4_matcher *keys = g4_name_matcher(sh, names, 0, &is_all);
    if (is_all) return;
    keys = g4_matcher_new(sh, NULL, 0, keys != NULL ? keys->keys : G4_RE_NONE, 1);
    g4_fact fact = g4_fact_keys(from, G4_FACT_KEYS, keys, g4_claim_on(&g4_shape_false, 0));
    fact.tracker = -1;
    g4_branch_add(sh, b, fact);
}

/* Names are taken from a list; what else stands there says nothing, and a warning tells it. */
static void g4_check_names(g4_shaper *sh, const g4_json *s, const g4_json *list, const char *what)
{
    int is_good = list->kind == G4_JSON_ARRAY;
    for (const g4_json *q = is_good ? list->child : NULL; q != NULL; q = q->next) is_good &= q->kind == G4_JSON_STRING;
    if (!is_good) g4_shaper_loosen(sh, s, list->key, "must be %s: ignored", what);
}

/* dependencies, dependentSchemas, dependentRequired. */
static void g4_assert_dependencies(g4_shaper *sh, g4_branch *b, const g4_fact *from, const g4_json *members)
{
    for (const g4_json *m = members->child; m != NULL && !g4_shaper_stops(sh); m = m->next) {
        g4_choosing k;
        const int is_schema = m->kind == G4_JSON_OBJECT || m->kind == G4_JSON_TRUE || m->kind == G4_JSON_FALSE;
        if (!is_schema) {
            if (m->kind != G4_JSON_STRING) /* one name is a list in draft 3 */
                g4_check_names(sh, members, m, "a list of names or a schema");
            g4_branch_add(sh, b, g4_fact_numbers(from, G4_FACT_NEED, g4_need_dependent(sh, m), 0));
            continue;
        }
        const int there = g4_need_var(sh, g4_shaper_name(sh, m->key, m->key_len));
        const int presence = from->tracker < 0 ? g4_schema_presence(sh, m) : -1;
        if (presence >= 0) {
            const int need = g4_need_or(sh, g4_need_not(sh, there), presence);
            g4_branch_add(sh, b, g4_fact_numbers(from, G4_FACT_NEED, need, 0));
            continue;
        }
        g4_choosing_open(&k, sh, m, 1);
        g4_choosing_add_fact(&k, g4_fact_numbers(from, G4_FACT_NEED, g4_need_not(sh, there), 0));
        g4_choosing_add_two(&k, g4_fact_numbers(from, G4_FACT_NEED, there, 0), g4_fact_claim(sh, from, m, 0));
        g4_choosing_close(&k, b);
    }
}

static void g4_assert_object(g4_expansion *x, g4_branch *b, const g4_fact *from, const g4_json *m, g4_keyword keyword)
{
    g4_shaper *sh = x->sh;
    const g4_json *s = from->claim.node;
    const int is_object = m->kind == G4_JSON_OBJECT;
    int n;
    switch (keyword) {
    case G4_KEY_PROPERTIES:
        if (is_object) g4_assert_properties(sh, b, from, m);
        break;
    case G4_KEY_PATTERN_PROPERTIES:
        if (is_object) g4_assert_patterns(sh, b, from, m);
        break;
    case G4_KEY_ADDITIONAL_PROPERTIES:
        b->is_open = 1;
        g4_branch_add(sh, b, g4_fact_keys(from, G4_FACT_KEYS, g4_schema_others(sh, s), g4_claim_on(m, 0)));
        break;
    case G4_KEY_PROPERTY_NAMES: g4_assert_names(sh, b, from, m); break;
    case G4_KEY_REQUIRED:
        g4_check_names(sh, s, m, "a list of names");
        g4_branch_add(sh, b, g4_fact_numbers(from, G4_FACT_NEED, g4_need_list(sh, m), 0));
        break;
    case G4_KEY_MIN_PROPERTIES:
    case G4_KEY_MAX_PROPERTIES:
        n = g4_schema_count(sh, s, m, INT_MAX);
        if (n < 0) break;
        g4_branch_add(sh, b,
                      keyword == G4_KEY_MIN_PROPERTIES ? g4_fact_numbers(from, G4_FACT_COUNT, n, -1)
                                                       : g4_fact_numbers(from, G4_FACT_COUNT, 0, n));
        break;
    case G4_KEY_DEPENDENCIES:
    case G4_KEY_DEPENDENT_REQUIRED:
    case G4_KEY_DEPENDENT_SCHEMAS:
        if (is_object) g4_assert_dependencies(sh, b, from, m);
        break;
    default: return;
    }
    const int wants_object = keyword == G4_KEY_PROPERTIES || keyword == G4_KEY_PATTERN_PROPERTIES ||
                             keyword == G4_KEY_DEPENDENCIES || keyword == G4_KEY_DEPENDENT_REQUIRED ||
                             keyword == G4_KEY_DEPENDENT_SCHEMAS;
    if (wants_object && !is_object) g4_shaper_loosen(sh, s, m->key, "must be an object: ignored");
}

/* ---- Keywords of arrays that must be met --------------------------------------------------------- */

/* The list of schemas of the first elements; NULL: there is none. */
static const g4_json *g4_schema_prefix(g4_shaper *sh, const g4_json *s)
{
    const g4_json *prefix = g4_json_get(s, "prefixItems"), *items = g4_json_get(s, "items");
    if (g4_refs_dialect(sh->refs) >= 2020 && g4_json_is(prefix, G4_JSON_ARRAY)) return prefix;
    return g4_json_is(items, G4_JSON_ARRAY) ? items : NULL;
}

static int g4_json_length(const g4_json *list)
{
    int n = 0;
    for (const g4_json *v = list != NULL ? list->child : NULL; v != NULL; v = v->next) n++;
    return n;
}

static void g4_contains_counts(g4_shaper *sh, const g4_json *s, int *min, int *max)
{
    const int has_counts = g4_refs_dialect(sh->refs) >= 2019;
    const g4_json *low = has_counts ? g4_json_get(s, "minContains") : NULL;
    const g4_json *high = has_counts ? g4_json_get(s, "maxContains") : NULL;
    *min = low != NULL ? g4_schema_count(sh, s, low, INT_MAX) : 1;
    *max = high != NULL ? g4_schema_count(sh, s, high, INT_MAX) : -1;
    if (*min < 0) *min = 1;
}

static g4_fact g4_fact_items(const g4_fact *from, int first, int last, const g4_json *schema, int denied)
{
    g4_fact fact = g4_fact_numbers(from, G4_FACT_ITEMS, first, last);
    fact.claim = g4_claim_on(schema, denied);
    return fact;
}

static g4_fact g4_fact_item(const g4_fact *from, int first, int min, int max, const g4_json *schema, int denied)
{
    g4_fact fact = g4_fact_numbers(from, G4_FACT_ITEM, min, max);
    fact.claim = g4_claim_on(schema, denied);
    fact.from = first;
    return fact;
}

static void g4_assert_prefix(g4_shaper *sh, g4_branch *b, const g4_fact *from, const g4_json *prefix)
{
    int i = 0;
    for (const g4_json *p = prefix->child; p != NULL && !g4_shaper_stops(sh); p = p->next, i++)
        g4_branch_add(sh, b, g4_fact_items(from, i, i, p, 0));
}

static void g4_assert_array(g4_expansion *x, g4_branch *b, const g4_fact *from, const g4_json *m, g4_keyword keyword)
{
    g4_shaper *sh = x->sh;
    const g4_json *s = from->claim.node, *prefix = g4_schema_prefix(sh, s);
    int n, max;
    switch (keyword) {
    case G4_KEY_PREFIX_ITEMS:
        if (m == prefix)
            g4_assert_prefix(sh, b, from, m);
        else if (m->kind != G4_JSON_ARRAY && g4_refs_dialect(sh->refs) >= 2020)
            g4_shaper_loosen(sh, s, m->key, "must be a list of schemas: ignored");
        break;
    case G4_KEY_ITEMS:
        if (m == prefix)
            g4_assert_prefix(sh, b, from, m);
        else if (m->kind != G4_JSON_ARRAY)
            g4_branch_add(sh, b, g4_fact_items(from, g4_json_length(prefix), -1, m, 0));
        break;
    case G4_KEY_ADDITIONAL_ITEMS:
        if (g4_json_is(g4_json_get(s, "items"), G4_JSON_ARRAY))
            g4_branch_add(sh, b, g4_fact_items(from, g4_json_length(prefix), -1, m, 0));
        break;
    case G4_KEY_CONTAINS:
        g4_contains_counts(sh, s, &n, &max);
        g4_branch_add(sh, b, g4_fact_item(from, 0, n, max, m, 0));
        break;
    case G4_KEY_MIN_ITEMS:
        n = g4_schema_count(sh, s, m, INT_MAX);
        if (n > 0) g4_branch_add(sh, b, g4_fact_numbers(from, G4_FACT_COUNT, n, -1));
        break;
    case G4_KEY_MAX_ITEMS:
        n = g4_schema_count(sh, s, m, INT_MAX);
        if (n >= 0) g4_branch_add(sh, b, g4_fact_numbers(from, G4_FACT_COUNT, 0, n));
        break;
    case G4_KEY_UNIQUE_ITEMS:
        if (m->kind == G4_JSON_TRUE)
            g4_branch_add(sh, b, g4_fact_from(from, G4_FACT_UNIQUE));
        else if (m->kind != G4_JSON_FALSE)
            g4_shaper_loosen(sh, s, m->key, "must be true or false: ignored");
        break;
    default: break;
    }
}

/* ---- Keywords that must be broken ---------------------------------------------------------------- */

/* Alternatives of a member that is there and breaks its schema. */
static void g4_deny_properties(g4_choosing *k, const g4_fact *from, const g4_json *properties)
{
    g4_shaper *sh = k->sh;
    for (const g4_json *p = properties->child; p != NULL && !g4_shaper_stops(sh); p = p->next) {
        g4_claim claim = g4_claim_on(p, 1);
        if (g4_claim_settle(sh, &claim) == 0) continue;
        const int32_t name = g4_shaper_name(sh, p->key, p->key_len);
        g4_choosing_add_two(k, g4_fact_numbers(from, G4_FACT_NEED, g4_need_var(sh, name), 0),
                            g4_fact_keys(from, G4_FACT_KEYS, sh->names[name].matcher, claim));
    }
}

/* The alternative that some member meets the claim whose name is none of those that the matcher has. */
static void g4_deny_others(g4_choosing *k, const g4_fact *from, const g4_matcher *others, g4_claim claim)
{
    g4_shaper *sh = k->sh;
    const g4_facts *facts = g4_facts_add(sh, NULL, g4_fact_new(sh, g4_fact_keys(from, G4_FACT_KEY, others, claim)));
    for (int i = 0; i < others->n_names; i++) { /* so that these get places of their own */
        const g4_matcher *name = sh->names[others->names[i]].matcher;
        const g4_fact fact = g4_fact_keys(from, G4_FACT_KEYS, name, g4_claim_on(&g4_shape_true, 0));
        facts = g4_facts_add(sh, facts, g4_fact_new(sh, fact));
    }
    g4_choosing_add(k, facts);
}

/* Some member that none of the schema's properties speak of breaks additionalProperties. */
static void g4_deny_additional(g4_choosing *k, const g4_fact *from, const g4_json *additional)
{
    g4_claim claim = g4_claim_on(additional, 1);
    if (g4_claim_settle(k->sh, &claim) != 0) g4_deny_others(k, from, g4_schema_others(k->sh, from->claim.node), claim);
}

static void g4_deny_dependencies(g4_choosing *k, const g4_fact *from, const g4_json *members)
{
    g4_shaper *sh = k->sh;
    for (const g4_json *m = members->child; m != NULL && !g4_shaper_stops(sh); m = m->next) {
        const int is_schema = m->kind == G4_JSON_OBJECT || m->kind == G4_JSON_TRUE || m->kind == G4_JSON_FALSE;
        const int there = g4_need_var(sh, g4_shaper_name(sh, m->key, m->key_len));
        if (is_schema)
            g4_choosing_add_two(k, g4_fact_numbers(from, G4_FACT_NEED, there, 0), g4_fact_claim(sh, from, m, 1));
        else
            g4_choosing_add_fact(k, g4_fact_numbers(from, G4_FACT_NEED, g4_need_not(sh, g4_need_dependent(sh, m)), 0));
    }
}

static void g4_deny_object(g4_choosing *k, const g4_fact *from, const g4_json *m, g4_keyword keyword)
{
    g4_shaper *sh = k->sh;
    const g4_json *s = from->claim.node;
    const g4_matcher *keys;
    g4_claim claim;
    int n, is_all;
    switch (keyword) {
    case G4_KEY_PROPERTIES: g4_deny_properties(k, from, m); break;
    case G4_KEY_PATTERN_PROPERTIES:
        for (const g4_json *p = m->child; p != NULL && !g4_shaper_stops(sh); p = p->next) {
            const g4_re re = g4_pattern_keys(sh, s, p);
            claim = g4_claim_on(p, 1);
            if (re == G4_RE_LOOSE)
                g4_choosing_add(k, NULL);
            else if (g4_claim_settle(sh, &claim) != 0)
                g4_choosing_add_fact(k, g4_fact_keys(from, G4_FACT_KEY, g4_matcher_new(sh, NULL, 0, re, 0), claim));
        }
        break;
    case G4_KEY_ADDITIONAL_PROPERTIES: g4_deny_additional(k, from, m); break;
    case G4_KEY_PROPERTY_NAMES:
        keys = g4_name_matcher(sh, m, 1, &is_all);
        if (is_all) keys = g4_matcher_new(sh, NULL, 0, G4_RE_NONE, 1);
        if (keys != NULL)
            g4_choosing_add_fact(k, g4_fact_keys(from, G4_FACT_KEY, keys, g4_claim_on(&g4_shape_true, 0)));
        break;
    case G4_KEY_REQUIRED:
        g4_choosing_add_fact(k, g4_fact_numbers(from, G4_FACT_NEED, g4_need_not(sh, g4_need_list(sh, m)), 0));
        break;
    case G4_KEY_MIN_PROPERTIES:
        n = g4_schema_count(sh, s, m, INT_MAX);
        if (n > 0) g4_choosing_add_fact(k, g4_fact_numbers(from, G4_FACT_COUNT, 0, n - 1));
        break;
    case G4_KEY_MAX_PROPERTIES:
        n = g4_schema_count(sh, s, m, INT_MAX - 1);
        if (n >= 0) g4_choosing_add_fact(k, g4_fact_numbers(from, G4_FACT_COUNT, n + 1, -1));
        break;
    case G4_KEY_DEPENDENCIES:
    case G4_KEY_DEPENDENT_REQUIRED:
    case G4_KEY_DEPENDENT_SCHEMAS: g4_deny_dependencies(k, from, m); break;
    default: break;
    }
}

static void g4_deny_prefix(g4_choosing *k, const g4_fact *from, const g4_json *prefix)
{
    int i = 0;
    for (const g4_json *p = prefix->child; p != NULL && !g4_shaper_stops(k->sh); p = p->next, i++)
        g4_choosing_add_two(k, g4_fact_items(from, i, i, p, 1), g4_fact_numbers(from, G4_FACT_COUNT, i + 1, -1));
}

static void g4_deny_array(g4_choosing *k, const g4_fact *from, const g4_json *m, g4_keyword keyword)
{
    g4_shaper *sh = k->sh;
    const g4_json *s = from->claim.node, *prefix = g4_schema_prefix(sh, s);
    const int is_rest = keyword == G4_KEY_ITEMS ? m != prefix && m->kind != G4_JSON_ARRAY
                                                : g4_json_is(g4_json_get(s, "items"), G4_JSON_ARRAY);
    int n, max;
    switch (keyword) {
    case G4_KEY_PREFIX_ITEMS:
    case G4_KEY_ITEMS:
    case G4_KEY_ADDITIONAL_ITEMS:
        if (m == prefix)
            g4_deny_prefix(k, from, m);
        else if (is_rest && keyword != G4_KEY_PREFIX_ITEMS)
            g4_choosing_add_fact(k, g4_fact_item(from, g4_json_length(prefix), 1, -1, m, 1));
        break;
    case G4_KEY_CONTAINS:
        g4_contains_counts(sh, s, &n, &max);
        if (n > 0) g4_choosing_add_fact(k, g4_fact_item(from, 0, 0, n - 1, m, 0));
        if (max >= 0 && max < INT_MAX) g4_choosing_add_fact(k, g4_fact_item(from, 0, max + 1, -1, m, 0));
        break;
    case G4_KEY_MIN_ITEMS:
        n = g4_schema_count(sh, s, m, INT_MAX);
        if (n > 0) g4_choosing_add_fact(k, g4_fact_numbers(from, G4_FACT_COUNT, 0, n - 1));
        break;
    case G4_KEY_MAX_ITEMS:
        n = g4_schema_count(sh, s, m, INT_MAX - 1);
        if (n >= 0) g4_choosing_add_fact(k, g4_fact_numbers(from, G4_FACT_COUNT, n + 1, -1));
        break;
    case G4_KEY_UNIQUE_ITEMS:
        if (m->kind != G4_JSON_TRUE) break;
        g4_shaper_loosen(sh, s, m->key, "is not held under a negation");
        g4_choosing_add(k, NULL);
        break;
    default: break;
    }
}

/* A denied oneOf: valid for none, or for two. */
static void g4_deny_one_of(g4_expansion *x, g4_choosing *k, const g4_fact *from, const g4_json *list)
{
    g4_shaper *sh = k->sh;
    const g4_facts *none = NULL;
    int pairs = 0;
    for (const g4_json *s = list->child; s != NULL && !g4_shaper_stops(sh); s = s->next)
        if (g4_claim_may(sh, g4_claim_on(s, 0), x->type))
            none = g4_facts_add(sh, none, g4_fact_new(sh, g4_fact_claim(sh, from, s, 1)));
    g4_choosing_add(k, none);
    for (const g4_json *s = list->child; s != NULL && !g4_shaper_stops(sh); s = s->next)
        for (const g4_json *t = s->next; t != NULL; t = t->next) {
            if (++pairs > G4_SHAPE_MAX_PAIRS) {
                g4_shaper_loosen(sh, x->node, "oneOf", "more than %d pairs of branches under a negation: not held",
                                 G4_SHAPE_MAX_PAIRS);
                g4_choosing_add(k, NULL);
                return;
            }
            if (!g4_schemas_exclude(x, s, t))
                g4_choosing_add_two(k, g4_fact_claim(sh, from, s, 0), g4_fact_claim(sh, from, t, 0));
        }
}

static void g4_deny_if(g4_expansion *x, g4_choosing *k, const g4_fact *from, const g4_json *condition)
{
    const g4_json *then = g4_json_get(from->claim.node, "then"), *other = g4_json_get(from->claim.node, "else");
    g4_shaper *sh = k->sh;
    if (then != NULL && g4_claim_may(sh, g4_claim_on(condition, 0), x->type))
        g4_choosing_add_two(k, g4_fact_claim(sh, from, condition, 0), g4_fact_claim(sh, from, then, 1));
    if (other != NULL) g4_choosing_add_two(k, g4_fact_claim(sh, from, condition, 1), g4_fact_claim(sh, from, other, 1));
}

/* The values of the type that enum or const lists; those of another type are not these anyway. */
static void g4_deny_values(g4_expansion *x, g4_choosing *k, const g4_fact *from, const g4_json *m, int is_list)
{
    const g4_facts *none = NULL;
    for (const g4_json *v = is_list ? m->child : m; v != NULL; v = is_list ? v->next : NULL) {
        g4_fact fact = g4_fact_from(from, G4_FACT_CLAIM);
        if (!(g4_value_types(v) & x->type)) continue;
        fact.claim = (g4_claim) { v, 1, 1 };
        none = g4_facts_add(k->sh, none, g4_fact_new(k->sh, fact));
    }
    g4_choosing_add(k, none);
}

/* The alternatives that break one keyword. */
static void g4_deny_keyword(g4_expansion *x, g4_choosing *k, const g4_fact *from, const g4_json *m)
{
    g4_shaper *sh = k->sh;
    const g4_json *s = from->claim.node, *target;
    const g4_keyword keyword = g4_keyword_of(m);
    const g4_facts *none = NULL;
    switch (keyword) {
    case G4_KEY_TYPE:
        if (!g4_claim_may(sh, g4_claim_on(s, 0), x->type)) g4_choosing_add(k, NULL);
        break;
    case G4_KEY_CONST: g4_deny_values(x, k, from, m, 0); break;
    case G4_KEY_ENUM: g4_deny_values(x, k, from, m, 1); break;
    case G4_KEY_REF:
        target = g4_schema_target(sh, s, m);
        if (target == NULL)
            g4_choosing_add(k, NULL);
        else
            g4_choosing_add_fact(k, g4_fact_claim(sh, from, target, 1));
        break;
    case G4_KEY_NOT: g4_choosing_add_fact(k, g4_fact_claim(sh, from, m, 0)); break;
    case G4_KEY_ALL_OF:
        for (const g4_json *b = m->child; b != NULL; b = b->next)
            g4_choosing_add_fact(k, g4_fact_claim(sh, from, b, 1));
        break;
    case G4_KEY_ANY_OF:
        for (const g4_json *b = m->child; b != NULL; b = b->next)
            none = g4_facts_add(sh, none, g4_fact_new(sh, g4_fact_claim(sh, from, b, 1)));
        g4_choosing_add(k, none);
        break;
    case G4_KEY_ONE_OF: g4_deny_one_of(x, k, from, m); break;
    case G4_KEY_IF: g4_deny_if(x, k, from, m); break;
    case G4_KEY_UNEVALUATED_ITEMS:
    case G4_KEY_UNEVALUATED_PROPERTIES:
        if ((keyword == G4_KEY_UNEVALUATED_ITEMS) != (x->type == G4_T_ARRAY)) break;
        g4_shaper_loosen(sh, s, m->key, "is not held under a negation");
        g4_choosing_add(k, NULL);
        break;
    default:
        if (x->type == G4_T_OBJECT)
            g4_deny_object(k, from, m, keyword);
        else
            g4_deny_array(k, from, m, keyword);
    }
}

static void g4_deny_schema(g4_expansion *x, g4_branch *b, const g4_fact *from)
{
    g4_shaper *sh = x->sh;
    const g4_schema_info *info = g4_shaper_info(sh, from->claim.node);
    const int presence = x->type == G4_T_OBJECT ? g4_schema_presence(sh, from->claim.node) : -1;
    g4_choosing k;
    if (presence >= 0) {
        g4_branch_add(sh, b, g4_fact_numbers(from, G4_FACT_NEED, g4_need_not(sh, presence), 0));
        return;
    }
    if (!g4_claim_may(sh, g4_claim_on(from->claim.node, 0), x->type)) return; /* it is broken by the type */
    g4_choosing_open(&k, sh, from->claim.node, 1);
    for (const g4_json *m = g4_schema_member(info, NULL); m != NULL && !k.holds && !g4_shaper_stops(sh);
         m = g4_schema_member(info, m))
        g4_deny_keyword(x, &k, from, m);
    g4_choosing_close(&k, b);
}

/* ---- Schemas and constants that must be met ------------------------------------------------------ */

/* Behind what cannot be followed or is not held, anything may have been evaluated. */
static void g4_branch_evaluate_all(g4_expansion *x, g4_branch *b, const g4_fact *from)
{
    if (from->tracker < 0) return;
    const g4_claim any = g4_claim_on(&g4_shape_true, 0);
    const g4_matcher *all = g4_matcher_new(x->sh, NULL, 0, G4_RE_NONE, 1);
    g4_branch_add(x->sh, b,
                  x->type == G4_T_OBJECT ? g4_fact_keys(from, G4_FACT_KEYS, all, any)
                                         : g4_fact_items(from, 0, -1, any.node, 0));
}

/* A schema with unevaluated... keeps account of what is evaluated; returns the claim with that tracker. One that allows
 * anything has nothing to keep account of, and has evaluated all for the schemas around it. */
static const g4_fact *g4_branch_track(g4_expansion *x, g4_branch *b, const g4_fact *from)
{
    const char *name = x->type == G4_T_OBJECT ? "unevaluatedProperties" : "unevaluatedItems";
    const g4_json *keyword = g4_json_get(from->claim.node, name);
    const g4_schema_info *info = g4_shaper_info(x->sh, from->claim.node);
    if (keyword == NULL || info->only != NULL || info->dialect < 2019) return from;
    if (keyword->kind == G4_JSON_TRUE || (keyword->kind == G4_JSON_OBJECT && keyword->child == NULL)) {
        g4_branch_evaluate_all(x, b, from);
        return from;
    }
    g4_tracker *tracker = g4_arena_alloc(x->sh->arena, sizeof *tracker);
    g4_fact tracked = *from;
    tracked.tracker = b->n_trackers;
    const g4_fact *own = g4_fact_new(x->sh, tracked);
    x->sh->no_memory |= tracker == NULL;
    if (tracker == NULL || own == NULL) return from;
    *tracker = (g4_tracker) { b->n_trackers++, from->tracker, keyword, own, b->trackers };
    b->trackers = tracker;
    b->is_open = 1;
    return own;
}

static void g4_assert_enum(g4_expansion *x, g4_branch *b, const g4_fact *from, const g4_json *list)
{
    g4_choosing k;
    if (list->kind != G4_JSON_ARRAY) return;
    g4_choosing_open(&k, x->sh, list, 0);
    k.choice.is_apart = 1;
    for (const g4_json *v = list->child; v != NULL; v = v->next) {
        g4_fact fact = g4_fact_from(from, G4_FACT_CLAIM);
        if (!(g4_value_types(v) & x->type)) continue;
        fact.claim = (g4_claim) { v, 1, 0 };
        fact.tracker = -1;
        g4_choosing_add_fact(&k, fact);
    }
    g4_choosing_close(&k, b);
}

static void g4_assert_keyword(g4_expansion *x, g4_branch *b, const g4_fact *from, const g4_json *m)
{
    g4_shaper *sh = x->sh;
    const g4_keyword keyword = g4_keyword_of(m);
    const int is_list = m->kind == G4_JSON_ARRAY;
    const g4_json *target;
    g4_fact fact;
    switch (keyword) {
    case G4_KEY_OTHER:
    case G4_KEY_TYPE: break; /* g4_claim_may has looked at it */
    case G4_KEY_CONST:
        fact = g4_fact_from(from, G4_FACT_CLAIM);
        fact.claim = (g4_claim) { m, 1, 0 };
        fact.tracker = -1;
        g4_branch_add(sh, b, fact);
        break;
    case G4_KEY_ENUM: g4_assert_enum(x, b, from, m); break;
    case G4_KEY_REF:
        target = g4_schema_target(sh, from->claim.node, m);
        if (target != NULL)
            g4_branch_add(sh, b, g4_fact_claim(sh, from, target, 0));
        else
            g4_branch_evaluate_all(x, b, from);
        break;
    case G4_KEY_ALL_OF: g4_assert_all(x, b, from, m); break;
    case G4_KEY_ANY_OF:
        if (is_list && x->level < 3)
            g4_choose_any(x, b, from, m);
        else
            g4_branch_evaluate_all(x, b, from);
        break;
    case G4_KEY_ONE_OF:
        if (is_list && x->level < 3)
            g4_choose_one(x, b, from, m);
        else
            g4_branch_evaluate_all(x, b, from);
        break;
    case G4_KEY_NOT: g4_branch_add(sh, b, g4_fact_claim(sh, from, m, 1)); break;
    case G4_KEY_IF:
        if (x->level < 3)
            g4_choose_if(x, b, from, m, 0);
        else
            g4_branch_evaluate_all(x, b, from);
        break;
    default:
        if (x->type == G4_T_OBJECT)
            g4_assert_object(x, b, from, m, keyword);
        else
            g4_assert_array(x, b, from, m, keyword);
    }
}

static void g4_assert_schema(g4_expansion *x, g4_branch *b, const g4_fact *from)
{
    const g4_schema_info *info = g4_shaper_info(x->sh, from->claim.node);
    from = g4_branch_track(x, b, from);
    for (const g4_json *m = g4_schema_member(info, NULL); m != NULL && !b->is_dead && !g4_shaper_stops(x->sh);
         m = g4_schema_member(info, m))
        g4_assert_keyword(x, b, from, m);
}

/* The keys that an object has. */
static const g4_matcher *g4_value_keys(g4_shaper *sh, const g4_json *v, int is_complement)
{
    int n = 0;
    int32_t *names = g4_arena_alloc(sh->arena, (size_t)(g4_json_length(v) + 1) * sizeof *names);
    sh->no_memory |= names == NULL;
    for (const g4_json *p = names != NULL ? v->child : NULL; p != NULL; p = p->next)
        names[n++] = g4_shaper_name(sh, p->key, p->key_len);
    if (names != NULL) n = g4_names_sort(sh, names, n);
    return g4_matcher_new(sh, names, n, G4_RE_NONE, is_complement);
}

static void g4_assert_value(g4_shaper *sh, g4_branch *b, const g4_fact *from)
{
    const g4_json *v = from->claim.node;
    int i = 0;
    b->is_open = 1;
    if (v->kind == G4_JSON_OBJECT)
        g4_branch_add(sh, b,
                      g4_fact_keys(from, G4_FACT_KEYS, g4_value_keys(sh, v, 1), g4_claim_on(&g4_shape_false, 0)));
    else
        g4_branch_add(sh, b, g4_fact_numbers(from, G4_FACT_COUNT, g4_json_length(v), g4_json_length(v)));
    for (const g4_json *p = v->child; p != NULL && !g4_shaper_stops(sh); p = p->next, i++) {
        g4_fact fact = g4_fact_numbers(from, G4_FACT_ITEMS, i, i);
        if (v->kind == G4_JSON_OBJECT) {
            const int32_t name = g4_shaper_name(sh, p->key, p->key_len);
            g4_branch_add(sh, b, g4_fact_numbers(from, G4_FACT_NEED, g4_need_var(sh, name), 0));
            fact = g4_fact_keys(from, G4_FACT_KEYS, sh->names[name].matcher, g4_claim_on(p, 0));
        }
        fact.claim = (g4_claim) { p, 1, 0 };
        g4_branch_add(sh, b, fact);
    }
}

/* A member or element differs, or is missing, or there is one more. */
static void g4_deny_value(g4_shaper *sh, g4_branch *b, const g4_fact *from)
{
    const g4_json *v = from->claim.node;
    const int n = g4_json_length(v), is_object = v->kind == G4_JSON_OBJECT;
    g4_choosing k;
    int i = 0;
    g4_choosing_open(&k, sh, v, 1);
    if (is_object) {
        g4_deny_others(&k, from, g4_value_keys(sh, v, 1), g4_claim_on(&g4_shape_true, 0));
    } else {
        g4_choosing_add_fact(&k, g4_fact_numbers(from, G4_FACT_COUNT, n + 1, -1));
        if (n > 0) g4_choosing_add_fact(&k, g4_fact_numbers(from, G4_FACT_COUNT, 0, n - 1));
    }
    for (const g4_json *p = v->child; p != NULL && !g4_shaper_stops(sh); p = p->next, i++) {
        const g4_claim differs = { p, 1, 1 };
        if (is_object) {
            const int32_t name = g4_shaper_name(sh, p->key, p->key_len);
            const int there = g4_need_var(sh, name);
            g4_choosing_add_fact(&k, g4_fact_numbers(from, G4_FACT_NEED, g4_need_not(sh, there), 0));
            g4_choosing_add_two(&k, g4_fact_numbers(from, G4_FACT_NEED, there, 0),
                                g4_fact_keys(from, G4_FACT_KEYS, sh->names[name].matcher, differs));
        } else {
            g4_fact fact = g4_fact_numbers(from, G4_FACT_ITEMS, i, i);
            fact.claim = differs;
            g4_choosing_add_two(&k, g4_fact_numbers(from, G4_FACT_COUNT, i + 1, -1), fact);
        }
    }
    g4_choosing_close(&k, b);
}

/* ---- Facts into a branch ------------------------------------------------------------------------- */

/* For each schema around that keeps account. */
static void g4_branch_evaluate(g4_shaper *sh, g4_branch *b, const g4_fact *fact)
{
    for (int id = fact->tracker; id >= 0;) {
        g4_evaluated *e = g4_arena_alloc(sh->arena, sizeof *e);
        const g4_tracker *tracker = b->trackers;
        sh->no_memory |= e == NULL;
        if (e == NULL) return;
        *e = (g4_evaluated) { id, fact, b->evaluated };
        b->evaluated = e;
        while (tracker->id != id) tracker = tracker->next;
        id = tracker->parent;
    }
}

/* Mark the schemas that the branch has claims of, each with the last of its facts. Lists grow at their head: what is
 * marked stays good for one that has become longer. */
static void g4_branch_mark_done(g4_shaper *sh, const g4_branch *b)
{
    const uint32_t stamp = ++sh->stamp;
    const g4_facts *d = b->done;
    for (; d != NULL && d != sh->done; d = d->next, sh->work++) {
        g4_schema_info *info = g4_shaper_info(sh, d->fact->claim.node);
        if (info->done == stamp) continue;
        info->done = stamp;
        info->done_fact = d->fact;
    }
    if (d == NULL) sh->done_since = stamp;
    sh->done = b->done;
}

/* What the branch knows of a claim already: 1 it is met, 0 it cannot be, 2 nothing. */
static int g4_branch_knows(g4_shaper *sh, const g4_branch *b, g4_claim claim, int tracker)
{
    if (b->done == NULL) return 2;
    if (sh->done != b->done) g4_branch_mark_done(sh, b);
    const g4_schema_info *info = g4_shaper_info(sh, claim.node);
    for (const g4_fact *f = info->done >= sh->done_since ? info->done_fact : NULL; f != NULL; f = f->same) {
        const g4_claim other = f->claim;
        sh->work++;
        if (other.is_value != claim.is_value) continue;
        if (other.is_denied != claim.is_denied) return 0;
        if (f->tracker == tracker || tracker < 0) return 1;
    }
    if (!claim.is_value || b->value == NULL || g4_json_equal(b->value, claim.node)) return 2;
    return claim.is_denied;
}

/* Note a fact that is taken up; the one of the same schema before it is its `same`. */
static void g4_branch_note(g4_shaper *sh, g4_branch *b, g4_fact fact)
{
    const g4_schema_info *info = g4_shaper_info(sh, fact.claim.node);
    fact.same = b->done != NULL && info->done >= sh->done_since ? info->done_fact : NULL;
    const g4_fact *own = g4_fact_new(sh, fact);
    if (own == NULL) return;
    b->done = g4_facts_add(sh, b->done, own);
    if (fact.claim.is_value && !fact.claim.is_denied) b->value = fact.claim.node;
}

static void g4_apply_claim(g4_expansion *x, g4_branch *b, const g4_fact *fact)
{
    g4_shaper *sh = x->sh;
    g4_fact settled = *fact;
    const int found = g4_claim_settle(sh, &settled.claim);
    int chain = 0;
    if (found != 2) {
        b->is_dead |= found == 0;
        if (found == 1 && g4_claim_is_loose(&settled.claim)) g4_branch_evaluate_all(x, b, fact);
        return;
    }
    for (const g4_fact *f = fact->from_claim; f != NULL; f = f->from_claim, chain++)
        if (f->claim.node == settled.claim.node && f->claim.is_denied == settled.claim.is_denied) b->is_dead = 1;
    if (chain > G4_SHAPE_MAX_CHAIN) {
        g4_shaper_loosen(sh, settled.claim.node, "", "more than %d schemas one within the other: not held",
                         G4_SHAPE_MAX_CHAIN);
        g4_branch_evaluate_all(x, b, fact);
        return;
    }
    const int known = g4_branch_knows(sh, b, settled.claim, settled.tracker);
    b->is_dead |= known == 0 || !g4_claim_may(sh, settled.claim, x->type);
    if (b->is_dead || known == 1) return;
    g4_branch_note(sh, b, settled);
    if (sh->no_memory) return;
    const g4_fact *own = b->done->fact;
    if (own->claim.is_value) {
        if (!own->claim.is_denied)
            g4_assert_value(sh, b, own);
        else if (g4_value_types(own->claim.node) & x->type && x->level < 3)
            g4_deny_value(sh, b, own);
    } else if (!own->claim.is_denied) {
        g4_assert_schema(x, b, own);
    } else if (x->level < 3) {
        g4_deny_schema(x, b, own);
    }
}

/* Must a member of that name be there? The names of the list are marked, as in g4_branch_mark_done. */
static int g4_branch_requires(g4_shaper *sh, const g4_branch *b, int32_t name)
{
    if (b->required == NULL) return 0;
    if (sh->required != b->required) {
        const uint32_t stamp = ++sh->stamp;
        const g4_facts *f = b->required;
        for (; f != NULL && f != sh->required; f = f->next, sh->work++) sh->names[f->fact->from].required = stamp;
        if (f == NULL) sh->required_since = stamp;
        sh->required = b->required;
    }
    return sh->names[name].required >= sh->required_since;
}

/* Plain conditions become facts of their own; what is left is one formula. The depth of the calls is the formula's. */
static void g4_apply_need(g4_shaper *sh, g4_branch *b, const g4_fact *fact, int need)
{
    const g4_need k = sh->needs[need];
    if (k.op == G4_NEED_AND) {
        g4_apply_need(sh, b, fact, k.a);
        g4_apply_need(sh, b, fact, k.b);
    } else if (k.op == G4_NEED_VAR) {
        g4_fact required = *fact;
        required.from = k.a;
        if (!g4_branch_requires(sh, b, k.a)) b->required = g4_facts_add(sh, b->required, g4_fact_new(sh, required));
    } else if (k.op == G4_NEED_NOT && sh->needs[k.a].op == G4_NEED_VAR) {
        g4_fact absent =
            g4_fact_keys(fact, G4_FACT_KEYS, sh->names[sh->needs[k.a].a].matcher, g4_claim_on(&g4_shape_false, 0));
        b->is_dead |= g4_branch_requires(sh, b, sh->needs[k.a].a);
        b->keys = g4_facts_add(sh, b->keys, g4_fact_new(sh, absent));
    } else {
        b->need = g4_need_and(sh, b->need, need);
    }
    b->is_dead |= b->need == G4_NEED_NEVER || need == G4_NEED_NEVER;
}

static void g4_apply(g4_expansion *x, g4_branch *b, const g4_fact *fact)
{
    g4_shaper *sh = x->sh;
    g4_fact other;
    switch (fact->kind) {
    case G4_FACT_CLAIM: g4_apply_claim(x, b, fact); break;
    case G4_FACT_NEED: g4_apply_need(sh, b, fact, fact->min); break;
    case G4_FACT_KEYS:
        b->keys = g4_facts_add(sh, b->keys, fact);
        g4_branch_evaluate(sh, b, fact);
        break;
    case G4_FACT_KEY: b->key = g4_facts_add(sh, b->key, fact); break;
    case G4_FACT_COUNT:
        b->min = g4_max_int(b->min, fact->min);
        if (fact->max >= 0) b->max = b->max < 0 ? fact->max : g4_min_int(b->max, fact->max);
        b->is_dead |= b->max >= 0 && b->min > b->max;
        break;
    case G4_FACT_ITEMS:
        b->items = g4_facts_add(sh, b->items, fact);
        g4_branch_evaluate(sh, b, fact);
        break;
    case G4_FACT_ITEM:
        other = g4_fact_items(fact, fact->from, -1, fact->claim.node, !fact->claim.is_denied);
        other.claim.is_value = fact->claim.is_value;
        other.tracker = -1;
        if (fact->max == 0) {
            g4_branch_add(sh, b, other);
        } else {
            if (fact->min > 0 || fact->max >= 0) b->item = g4_facts_add(sh, b->item, fact);
            if (!fact->claim.is_denied) g4_branch_evaluate(sh, b, fact);
        }
        b->is_dead |= fact->max >= 0 && fact->min > fact->max;
        b->min = g4_max_int(b->min, fact->from + fact->min > fact->from ? fact->min : 0);
        break;
    case G4_FACT_UNIQUE: b->is_unique = 1; break;
    }
}

static void g4_branch_run(g4_expansion *x, g4_branch *b)
{
    while (b->todo != NULL && !b->is_dead && !g4_shaper_stops(x->sh) && !g4_expansion_is_over(x)) {
        const g4_fact *fact = b->todo->fact;
        x->sh->work += 10;
        b->todo = b->todo->next;
        g4_apply(x, b, fact);
    }
}

/* ---- What a branch says of a member -------------------------------------------------------------- */

static int g4_matcher_is_name(const g4_matcher *k)
{
    return k->n_names == 1 && !k->is_complement && k->keys == G4_RE_NONE;
}

static int g4_fact_compare(const void *pa, const void *pb)
{
    const g4_fact *a = *(const g4_fact *const *)pa, *b = *(const g4_fact *const *)pb;
    if (a->order != b->order) return a->order < b->order ? -1 : 1;
    return (a->serial > b->serial) - (a->serial < b->serial);
}

/* The goal of what n facts claim, and perhaps one claim more. It sorts the facts. */
static int g4_facts_goal(g4_shaper *sh, const g4_fact **facts, int n, const g4_claim *more)
{
    if (n == 0 && more == NULL) return G4_GOAL_ANY;
    g4_claim few[16] = { { 0 } }, *claims = n + 1 > 16 ? g4_alloc(sh->a, (size_t)n + 1, sizeof *claims) : few;
    sh->no_memory |= claims == NULL;
    if (claims == NULL) return G4_GOAL_NONE;
    if (n > 1) qsort(facts, (size_t)n, sizeof *facts, g4_fact_compare);
    for (int i = 0; i < n; i++) claims[i] = facts[i]->claim;
    if (more != NULL) claims[n] = *more;
    const int goal = g4_goal_of(sh, claims, n + (more != NULL));
    if (claims != few) g4_free(sh->a, claims);
    return goal;
}

/* Facts that are gathered from a list: few in place, more in memory that is given back at the end. */
typedef struct {
    const g4_fact *few[64], **more;
    int n, cap;
} g4_gathered;

static void g4_gather(g4_shaper *sh, g4_gathered *k, const g4_fact *fact)
{
    if (k->n == 64 && k->more == NULL) {
        k->more = g4_array_grow(sh->a, NULL, 0, &k->cap, sizeof *k->more);
        for (int i = 0; k->more != NULL && i < 64; i++) {
            const g4_fact **more = g4_array_grow(sh->a, k->more, i, &k->cap, sizeof *more);
            if (more == NULL) break;
            k->more = more;
            more[i] = k->few[i];
        }
    }
    const g4_fact **all = k->n < 64 ? k->few : g4_array_grow(sh->a, k->more, k->n, &k->cap, sizeof *all);
    sh->no_memory |= all == NULL;
    if (all == NULL) return;
    if (k->n >= 64) k->more = all;
    all[k->n++] = fact;
}

static int g4_gathered_goal(g4_shaper *sh, g4_gathered *k, const g4_claim *more)
{
    const int goal = g4_facts_goal(sh, k->more != NULL ? k->more : k->few, k->n, more);
    g4_free(sh->a, k->more);
    return goal;
}

static int g4_branch_member_with(g4_expansion *x, const g4_branch *b, int32_t name, const g4_claim *more)
{
    g4_gathered facts = { .n = 0 };
    for (const g4_facts *f = b->keys; f != NULL; f = f->next, x->sh->work++)
        if (g4_matcher_has(x->sh, f->fact->keys, name)) g4_gather(x->sh, &facts, f->fact);
    return g4_gathered_goal(x->sh, &facts, more);
}

static int g4_branch_member(g4_expansion *x, const g4_branch *b, int32_t name)
{
    return g4_branch_member_with(x, b, name, NULL);
}

/* ---- Making choices ------------------------------------------------------------------------------ */

typedef enum { G4_FATE_DEAD, G4_FATE_HOLDS, G4_FATE_OPEN } g4_fate;

/* Must a member of that name be there in the branch, or when the schema is met? */
static int g4_requires_with(g4_shaper *sh, const g4_branch *b, const g4_json *schema, const g4_json *property)
{
    const g4_json *list = g4_json_get(schema, "required");
    for (const g4_json *q = g4_json_is(list, G4_JSON_ARRAY) ? list->child : NULL; q != NULL; q = q->next)
        if (q->kind == G4_JSON_STRING && q->text_len == property->key_len &&
            memcmp(q->text, property->key, q->text_len) == 0)
            return 1;
    return g4_branch_requires(sh, b, g4_shaper_name(sh, property->key, property->key_len));
}

/* Is it plain that the branch leaves no value for a member that the schema gives constants for? */
static int g4_branch_excludes(g4_expansion *x, const g4_branch *b, const g4_json *schema)
{
    g4_shaper *sh = x->sh;
    const g4_json *properties = g4_json_get(schema, "properties");
    if (x->type != G4_T_OBJECT || g4_shaper_info(sh, schema)->only != NULL) return 0;
    for (const g4_json *p = g4_json_is(properties, G4_JSON_OBJECT) ? properties->child : NULL; p != NULL; p = p->next) {
        const int has_constants = g4_json_get(p, "const") != NULL || g4_json_get(p, "enum") != NULL;
        const g4_claim claim = g4_claim_on(p, 0);
        if (!has_constants || !g4_requires_with(sh, b, schema, p)) continue;
        const int32_t name = g4_shaper_name(sh, p->key, p->key_len);
        if (g4_goal_is_empty(x, g4_branch_member_with(x, b, name, &claim))) return 1;
    }
    return 0;
}

static g4_fate g4_fate_of_claim(g4_expansion *x, const g4_branch *b, const g4_fact *fact)
{
    g4_claim claim = fact->claim;
    const int found = g4_claim_settle(x->sh, &claim);
    if (found != 2) return found ? (fact->tracker < 0 ? G4_FATE_HOLDS : G4_FATE_OPEN) : G4_FATE_DEAD;
    g4_claim met = claim;
    met.is_denied = 0;
    if (!g4_claim_may(x->sh, met, x->type)) return claim.is_denied ? G4_FATE_HOLDS : G4_FATE_DEAD;
    const int known = g4_branch_knows(x->sh, b, claim, fact->tracker);
    if (known == 2 && !claim.is_value && g4_branch_excludes(x, b, claim.node))
        return claim.is_denied ? G4_FATE_HOLDS : G4_FATE_DEAD;
    return known == 2 ? G4_FATE_OPEN : known ? G4_FATE_HOLDS : G4_FATE_DEAD;
}

/* What is left of a formula, with what the branch requires and forbids. */
static int g4_need_in_branch(g4_expansion *x, const g4_branch *b, int need)
{
    g4_shaper *sh = x->sh;
    for (const g4_facts *f = b->required; f != NULL && need > G4_NEED_ALWAYS; f = f->next)
        need = g4_need_set(sh, need, f->fact->from, 1);
    g4_need k = sh->needs[need];
    if (k.op == G4_NEED_NOT) k = sh->needs[k.a];
    if (k.op == G4_NEED_VAR && g4_branch_member(x, b, k.a) == G4_GOAL_NONE) need = g4_need_set(sh, need, k.a, 0);
    return need;
}

static g4_fate g4_fate_of_keys(g4_expansion *x, const g4_branch *b, const g4_fact *fact)
{
    g4_claim claim = fact->claim;
    const int found = g4_claim_settle(x->sh, &claim);
    if (found == 1) return G4_FATE_HOLDS;
    if (!g4_matcher_is_name(fact->keys)) return G4_FATE_OPEN;
    const int32_t name = fact->keys->names[0];
    if (found == 0 || g4_goal_is_empty(x, g4_branch_member_with(x, b, name, &claim))) return G4_FATE_DEAD;
    claim.is_denied = !claim.is_denied;
    return g4_goal_is_empty(x, g4_branch_member_with(x, b, name, &claim)) ? G4_FATE_HOLDS : G4_FATE_OPEN;
}

static g4_fate g4_fate_of(g4_expansion *x, const g4_branch *b, const g4_fact *fact)
{
    int need;
    switch (fact->kind) {
    case G4_FACT_CLAIM: return g4_fate_of_claim(x, b, fact);
    case G4_FACT_NEED:
        need = g4_need_in_branch(x, b, fact->min);
        return need == G4_NEED_ALWAYS ? G4_FATE_HOLDS : need == G4_NEED_NEVER ? G4_FATE_DEAD : G4_FATE_OPEN;
    case G4_FACT_KEYS: return g4_fate_of_keys(x, b, fact);
    case G4_FACT_COUNT:
        if ((b->max >= 0 && fact->min > b->max) || (fact->max >= 0 && b->min > fact->max)) return G4_FATE_DEAD;
        if (b->min >= fact->min && (fact->max < 0 || (b->max >= 0 && b->max <= fact->max))) return G4_FATE_HOLDS;
        return G4_FATE_OPEN;
    default: return G4_FATE_OPEN;
    }
}

static g4_fate g4_fate_of_alternative(g4_expansion *x, const g4_branch *b, const g4_alternative *a)
{
    int holds = 1;
    for (const g4_facts *f = a->facts; f != NULL; f = f->next) {
        const g4_fate fate = g4_fate_of(x, b, f->fact);
        if (fate == G4_FATE_DEAD) return fate;
        holds &= fate == G4_FATE_HOLDS;
    }
    return holds ? G4_FATE_HOLDS : G4_FATE_OPEN;
}

/* The choice without what the branch rules out; *n: alternatives left, -1 when it holds anyway. */
static g4_split g4_choice_settle(g4_expansion *x, const g4_branch *b, const g4_split *choice, int *n)
{
    g4_choosing k;
    g4_choosing_open(&k, x->sh, choice->node, choice->is_exclusion);
    k.choice.is_apart = choice->is_apart;
    for (const g4_alternative *a = choice->alternatives; a != NULL && !g4_shaper_stops(x->sh); a = a->next) {
        x->sh->work += 20;
        const g4_fate fate = g4_fate_of_alternative(x, b, a);
        if (fate == G4_FATE_HOLDS) {
            *n = -1;
            return k.choice;
        }
        if (fate == G4_FATE_OPEN) g4_choosing_add(&k, a->facts);
    }
    *n = k.n;
    return k.choice;
}

/* May it say what is evaluated? Then, left out, unevaluated... is not held in the branch. */
static int g4_choice_evaluates(const g4_split *choice)
{
    int evaluates = 0;
    for (const g4_alternative *a = choice->alternatives; a != NULL && !evaluates; a = a->next)
        for (const g4_facts *f = a->facts; f != NULL; f = f->next) evaluates |= f->fact->tracker >= 0;
    return evaluates;
}

/* Take the choice with the fewest alternatives out of the branch. 0: none is left; what they come to is in the branch.
 * */
static int g4_branch_choose(g4_expansion *x, g4_branch *b, g4_split *best, int n_chosen)
{
    const g4_split *all = b->choices, *found = NULL;
    int fewest = INT_MAX;
    b->choices = NULL;
    for (const g4_split *c = all; c != NULL && !b->is_dead; c = c->next) {
        int n;
        x->has_exclusions |= c->is_exclusion;
        if ((x->level == 1 && c->is_exclusion) || x->level == 3 || (x->level == 2 && n_chosen > 0)) {
            b->has_lost |= g4_choice_evaluates(c);
            continue;
        }
        if (g4_expansion_is_over(x)) return 0;
        g4_split settled = g4_choice_settle(x, b, c, &n);
        if (n == 0) b->is_dead = 1;
        if (n <= 0) continue;
        g4_split *own = g4_arena_alloc(x->sh->arena, sizeof *own);
        x->sh->no_memory |= own == NULL;
        if (own == NULL) return 0;
        *own = settled;
        own->next = b->choices;
        b->choices = own;
        if (n < fewest) {
            fewest = n;
            found = own;
        }
    }
    if (found == NULL || b->is_dead) return 0;
    *best = *found;
    const g4_split *rest = b->choices;
    b->choices = NULL;
    for (; rest != NULL; rest = rest->next) {
        if (rest == found) continue;
        g4_split *own = g4_arena_alloc(x->sh->arena, sizeof *own);
        x->sh->no_memory |= own == NULL;
        if (own == NULL) return 0;
        *own = *rest;
        own->next = b->choices;
        b->choices = own;
    }
    return 1;
}

/* ---- What is unevaluated ------------------------------------------------------------------------- */

/* The keys that nothing of the tracker's schema has evaluated; NULL: all have been. */
static const g4_matcher *g4_tracker_keys(g4_shaper *sh, const g4_branch *b, const g4_tracker *tracker)
{
    g4_re keys = G4_RE_NONE;
    int n = 0;
    for (const g4_evaluated *e = b->evaluated; e != NULL; e = e->next)
        if (e->tracker == tracker->id && e->fact->keys != NULL) n += e->fact->keys->n_names;
    int32_t *names = g4_arena_alloc(sh->arena, (size_t)(n + 1) * sizeof *names);
    sh->no_memory |= names == NULL;
    if (names == NULL) return NULL;
    n = 0;
    for (const g4_evaluated *e = b->evaluated; e != NULL; e = e->next) {
        const g4_matcher *k = e->fact->keys;
        if (e->tracker != tracker->id || k == NULL) continue;
        if (k->is_complement) return NULL; /* additionalProperties, or an inner unevaluatedProperties */
        for (int i = 0; i < k->n_names; i++) names[n++] = k->names[i];
        keys = g4_re_or(sh->regular, keys, k->keys);
    }
    return g4_matcher_new(sh, names, g4_names_sort(sh, names, n), keys, 1);
}

/* A schema that holds for what is unevaluated, and for the elements that `contains` has evaluated says so. */
static const g4_json *g4_tracker_items(g4_shaper *sh, const g4_branch *b, const g4_tracker *tracker, int *first)
{
    g4_json *list = g4_arena_alloc(sh->arena, sizeof *list), *schema = g4_arena_alloc(sh->arena, sizeof *schema);
    g4_json *own = g4_arena_alloc(sh->arena, sizeof *own);
    int is_plain = 1;
    sh->no_memory |= list == NULL || schema == NULL || own == NULL;
    if (sh->no_memory) return NULL;
    *own = *tracker->keyword;
    own->next = NULL;
    *list = (g4_json) { .kind = G4_JSON_ARRAY, .key = "anyOf", .key_len = 5, .child = own };
    *schema = (g4_json) { .kind = G4_JSON_OBJECT, .child = list };
    *first = 0;
    for (const g4_evaluated *e = b->evaluated; e != NULL; e = e->next) {
        if (e->tracker != tracker->id) continue;
        if (e->fact->kind == G4_FACT_ITEM) {
            g4_json *contains = g4_arena_alloc(sh->arena, sizeof *contains);
            sh->no_memory |= contains == NULL;
            if (contains == NULL) return NULL;
            *contains = *e->fact->claim.node;
            contains->next = list->child;
            list->child = contains;
            is_plain = 0;
        } else if (e->fact->max < 0) {
            return NULL; /* items */
        } else {
            *first = g4_max_int(*first, e->fact->max + 1);
        }
    }
    return is_plain ? tracker->keyword : schema;
}

/* The trackers' facts, the inner ones first, which evaluate for those around them. */
static void g4_branch_finish_trackers(g4_expansion *x, g4_branch *b)
{
    for (const g4_tracker *t = b->has_lost ? NULL : b->trackers; t != NULL && !g4_shaper_stops(x->sh); t = t->next) {
        g4_fact fact;
        int first;
        if (x->type == G4_T_OBJECT) {
            const g4_matcher *keys = g4_tracker_keys(x->sh, b, t);
            if (keys == NULL) continue;
            fact = g4_fact_keys(t->claim, G4_FACT_KEYS, keys, g4_claim_on(t->keyword, 0));
        } else {
            const g4_json *schema = g4_tracker_items(x->sh, b, t, &first);
            if (schema == NULL) continue;
            fact = g4_fact_items(t->claim, first, -1, schema, 0);
        }
        fact.tracker = t->parent;
        g4_branch_add(x->sh, b, fact);
        g4_branch_run(x, b);
    }
}

/* ---- Branches to shapes of objects --------------------------------------------------------------- */

typedef struct { /* a shape in the making */
    g4_expansion *x;
    g4_branch *b;
    g4_object_shape *shape;
    const g4_fact **named;   /* facts of one name each, by name */
    const g4_fact **general; /* the others */
    const g4_fact **some;    /* facts of sorts of members that must be there */
    const g4_fact **scratch;
    int32_t *names;
    int n_named, n_general, n_names, cap_names;
    int n_shapes;  /* of the goal, before this */
    int is_closed; /* there are no members but those that properties or patterns speak of */
} g4_objecting;

static void g4_objecting_name(g4_objecting *o, int32_t name, uint32_t mark)
{
    g4_shaper *sh = o->x->sh;
    if (sh->names[name].marked == mark) return;
    int32_t *names = g4_array_grow(sh->a, o->names, o->n_names, &o->cap_names, sizeof *names);
    sh->no_memory |= names == NULL;
    if (names == NULL) return;
    sh->names[name].marked = mark;
    o->names = names;
    names[o->n_names++] = name;
}

/* The depth of the calls is that of the formula; each part of it is looked at once. */
static void g4_objecting_need(g4_objecting *o, int need, uint32_t mark)
{
    const g4_need k = o->x->sh->needs[need];
    if (k.stamp == o->x->sh->need_stamp) return;
    o->x->sh->needs[need].stamp = o->x->sh->need_stamp;
    if (k.op == G4_NEED_VAR) g4_objecting_name(o, k.a, mark);
    if (k.op >= G4_NEED_NOT) g4_objecting_need(o, k.a, mark);
    if (k.op > G4_NEED_NOT) g4_objecting_need(o, k.b, mark);
}

static int g4_named_compare(const void *pa, const void *pb)
{
    const int32_t a = (*(const g4_fact *const *)pa)->keys->names[0], b = (*(const g4_fact *const *)pb)->keys->names[0];
    return a != b ? (a > b) - (a < b) : g4_fact_compare(pa, pb);
}

/* The facts by kind, and all names that the branch speaks of. */
static void g4_objecting_collect(g4_objecting *o)
{
    g4_shaper *sh = o->x->sh;
    const uint32_t mark = ++sh->mark;
    int n = 0;
    for (const g4_facts *f = o->b->keys; f != NULL; f = f->next) n++;
    o->named = g4_alloc(sh->a, (size_t)n + 1, sizeof(void *));
    o->general = g4_alloc(sh->a, (size_t)n + 1, sizeof(void *));
    o->scratch = g4_alloc(sh->a, (size_t)n + 1, sizeof(void *));
    sh->no_memory |= o->named == NULL || o->general == NULL || o->scratch == NULL;
    if (sh->no_memory) return;
    for (const g4_facts *f = o->b->keys; f != NULL; f = f->next)
        if (g4_matcher_is_name(f->fact->keys))
            o->named[o->n_named++] = f->fact;
        else
            o->general[o->n_general++] = f->fact;
    if (!g4_sort(sh->a, o->named, (size_t)o->n_named, sizeof(void *), g4_named_compare, sh->asker.halt))
        sh->no_memory = 1;
    if (o->n_general > 1) qsort(o->general, (size_t)o->n_general, sizeof(void *), g4_fact_compare);
    for (int i = o->n_named - 1; i >= 0; i--) g4_objecting_name(o, o->named[i]->keys->names[0], mark);
    for (const g4_facts *f = o->b->required; f != NULL; f = f->next) g4_objecting_name(o, f->fact->from, mark);
    sh->need_stamp++;
    g4_objecting_need(o, o->b->need, mark);
}

/* The facts of one name into the scratch; returns their number. */
static int g4_objecting_facts(g4_objecting *o, int32_t name)
{
    int low = 0, high = o->n_named, n = 0;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (o->named[middle]->keys->names[0] < name)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < o->n_named && o->named[low]->keys->names[0] == name; low++) o->scratch[n++] = o->named[low];
    for (int i = 0; i < o->n_general; i++)
        if (g4_matcher_has(o->x->sh, o->general[i]->keys, name)) o->scratch[n++] = o->general[i];
    return n;
}

/* Names that other alternatives declare have their place among this one's members too, where it allows them. */
static void g4_objecting_add_ranked(g4_objecting *o)
{
    g4_shaper *sh = o->x->sh;
    const uint32_t mark = sh->mark;
    if (sh->is_call || sh->n_ranked - o->n_names > G4_SHAPE_MAX_FOREIGN || o->n_shapes > G4_SHAPE_MAX_SHAPES) return;
    for (int i = 0; i < sh->n_ranked && !g4_shaper_stops(sh); i++) {
        if (sh->names[sh->ranked[i]].marked == mark) continue;
        const int n = g4_objecting_facts(o, sh->ranked[i]);
        if (g4_facts_goal(sh, o->scratch, n, NULL) != G4_GOAL_NONE) g4_objecting_name(o, sh->ranked[i], mark);
    }
}

static int g4_member_compare(const void *pa, const void *pb)
{
    const g4_member_shape *a = pa, *b = pb;
    if (a->rank != b->rank) return a->rank < b->rank ? -1 : 1;
    if (a->place != b->place) return a->place < b->place ? -1 : 1;
    return (a->name > b->name) - (a->name < b->name);
}

/* The goals of a member that counts for each set of sorts, of which it may count for `sorts`. */
static void g4_objecting_sorts(g4_objecting *o, int goals[1 << G4_SHAPE_SOME], int goal, unsigned sorts)
{
    goals[0] = goal;
    for (unsigned set = 1; set < 1u << o->shape->n_some; set++) {
        int k = 0;
        while (!(set >> k & 1)) k++;
        goals[set] =
            (set & ~sorts) != 0 ? G4_GOAL_NONE : g4_goal_with(o->x->sh, goals[set & (set - 1)], o->some[k]->claim);
    }
}

/* What a schema says of the order of members stands in the one that it refers to, unless it is an older draft's, where
 * names beside $ref count for the order too. NULL: it says nothing of it. */
static const g4_json *g4_seen_node(g4_shaper *sh, const g4_json *schema)
{
    g4_claim claim = g4_claim_on(schema, 0);
    if (!(g4_schema_types(sh, schema) & (G4_T_ARRAY | G4_T_OBJECT))) return NULL;
    if (schema->kind != G4_JSON_OBJECT || g4_json_get(schema, "properties") != NULL) return schema;
    return g4_claim_settle(sh, &claim) == 2 && !claim.is_denied && !claim.is_value ? claim.node : NULL;
}

typedef struct { /* schemas that stand beside the claims of a goal */
    const g4_json *schemas[G4_SHAPE_MAX_BESIDE];
    int n, is_new; /* is_new: some are none of the claims */
} g4_beside;

static void g4_beside_add(g4_shaper *sh, g4_beside *beside, const g4_goal *goal, const g4_json *schema)
{
    const g4_json *node = g4_seen_node(sh, schema);
    int is_claim = 0;
    if (node == NULL || beside->n == G4_SHAPE_MAX_BESIDE) return;
    for (int i = 0; i < beside->n; i++)
        if (beside->schemas[i] == node) return;
    for (int i = 0; i < goal->n && !is_claim; i++) is_claim = g4_claims_equal(goal->claims[i], g4_claim_on(node, 0));
    beside->is_new |= !is_claim;
    beside->schemas[beside->n++] = node;
}

/* The goal of a member, with the schemas that all alternatives have for it. */
static int g4_goal_with_seen(g4_shaper *sh, int goal, g4_seen seen)
{
    const g4_seen lists[2] = { seen, sh->seen_patterns };
    g4_beside beside = { .n = 0 };
    if (goal <= G4_GOAL_ANY || sh->n_goals > G4_SHAPE_MAX_RANKED) return goal;
    for (int k = 0; k < 2; k++)
        for (int i = lists[k].first; i > 0; i = sh->seen[i].next)
            g4_beside_add(sh, &beside, sh->goals[goal], sh->seen[i].schema);
    return beside.is_new ? g4_goal_beside(sh, goal, beside.schemas, beside.n) : goal;
}

/* 0: a required member cannot be. */
static int g4_objecting_members(g4_objecting *o)
{
    g4_shaper *sh = o->x->sh;
    g4_object_shape *shape = o->shape;
    shape->members = g4_arena_alloc(sh->arena, (size_t)(o->n_names + 1) * sizeof *shape->members);
    sh->no_memory |= shape->members == NULL;
    for (int i = 0; i < o->n_names && !g4_shaper_stops(sh); i++) {
        const int32_t name = o->names[i];
        g4_member_shape *m = &shape->members[shape->n_members++];
        sh->work += 20;
        const g4_name *known = &sh->names[name];
        const int n = g4_objecting_facts(o, name);
        *m = (g4_member_shape) { .name = name, .rank = known->ranked == sh->walk ? known->rank : G4_SHAPE_UNRANKED };
        m->place = known->listed == sh->walk ? known->place : G4_SHAPE_UNRANKED;
        m->goal = g4_facts_goal(sh, o->scratch, n, NULL);
        m->goal = g4_goal_with_seen(sh, m->goal, known->ranked == sh->walk ? known->seen : sh->seen_others);
        unsigned sorts = 0;
        for (int k = 0; k < shape->n_some; k++) sorts |= (unsigned)g4_matcher_has(sh, o->some[k]->keys, name) << k;
        g4_objecting_sorts(o, m->sorts, m->goal, sorts);
    }
    for (int i = 0; i < shape->n_members && !sh->no_memory; i++) {
        shape->members[i].is_required = g4_branch_requires(sh, o->b, shape->members[i].name);
        if (shape->members[i].is_required && g4_goal_is_empty(o->x, shape->members[i].goal)) return 0;
    }
    if (sh->no_memory || !g4_sort(sh->a, shape->members, (size_t)shape->n_members, sizeof *shape->members,
                                  g4_member_compare, sh->asker.halt))
        return 0;
    while (shape->n_ordered < shape->n_members && shape->members[shape->n_ordered].rank != G4_SHAPE_UNRANKED)
        shape->n_ordered++;
    if (shape->n_members - shape->n_ordered > G4_SHAPE_MAX_FREE) shape->n_ordered = shape->n_members;
    return 1;
}

typedef struct { /* of keys: those of an expression, to which these general facts, and sorts of members, apply */
    g4_re keys;
    uint64_t facts;
    unsigned some;
    int is_mixed; /* it was not split any more: facts that hold for some of its keys are left out */
} g4_key_class;

/* Split the classes by what one matcher says; a bit each for those within. Where there is no room for another class, or
 * it is not found out whether both parts have a key, one is left whole, without the fact, and as if each of its keys
 * counted for the sorts. */
static int g4_classes_split(g4_shaper *sh, g4_key_class *classes, int n, int max, const g4_matcher *k, uint64_t facts,
                            unsigned some)
{
    const int n_old = n;
    for (int i = 0; i < n_old && !g4_shaper_stops(sh); i++) {
        if (k->keys == G4_RE_NONE) { /* it speaks of names only, and these are no classes */
            classes[i].facts |= k->is_complement ? facts : 0;
            classes[i].some |= k->is_complement ? some : 0;
            continue;
        }
        if (n_old >= max) {
            classes[i].is_mixed = 1;
            classes[i].some |= some;
            continue;
        }
        const g4_re within = g4_re_and(sh->regular, classes[i].keys, k->keys);
        const g4_re without = g4_re_and(sh->regular, classes[i].keys, g4_re_not(sh->regular, k->keys));
        g4_key_class in = classes[i], out = classes[i];
        in.keys = k->is_complement ? without : within;
        in.facts |= facts;
        in.some |= some;
        out.keys = k->is_complement ? within : without;
        const int in_none = g4_re_is_none(sh->regular, in.keys), out_none = g4_re_is_none(sh->regular, out.keys);
        if (in_none == 1) {
            classes[i] = out;
        } else if (out_none == 1) {
            classes[i] = in;
        } else if (n < max && in_none == 0 && out_none == 0) {
            classes[i] = in;
            classes[n++] = out;
        } else {
            classes[i].is_mixed = 1;
            classes[i].some |= some;
        }
    }
    return n;
}

/* Every key but those that have a place of their own. */
static g4_re g4_objecting_other_keys(g4_objecting *o)
{
    g4_shaper *sh = o->x->sh;
    if (o->shape->n_members == 0) return o->n_general == 0 ? sh->any_text : sh->written_text;
    const g4_re names = g4_names_text(sh, o->names, o->n_names);
    return g4_re_and(sh->regular, sh->written_text, g4_re_not(sh->regular, names));
}

/* Put a class into the rest of the shape, beside those with the same goals. */
static void g4_objecting_add_class(g4_objecting *o, const g4_key_class *k)
{
    g4_shaper *sh = o->x->sh;
    g4_object_shape *shape = o->shape;
    g4_rest_shape rest = { .keys = k->keys };
    int n = 0, is_declared = !o->is_closed || k->is_mixed;
    for (int i = 0; i < o->n_general && i < G4_SHAPE_MAX_GENERAL; i++)
        if (k->facts >> i & 1) {
            o->scratch[n++] = o->general[i];
            is_declared |= !o->general[i]->keys->is_complement;
        }
    if (!is_declared) return;
    rest.goal = g4_goal_with_seen(sh, g4_facts_goal(sh, o->scratch, n, NULL), sh->seen_others);
    if (rest.goal == G4_GOAL_NONE) return;
    g4_objecting_sorts(o, rest.sorts, rest.goal, k->some);
    for (int i = 0; i < shape->n_rest; i++) {
        g4_rest_shape *other = &shape->rest[i];
        if (other->goal != rest.goal || memcmp(other->sorts, rest.sorts, sizeof rest.sorts) != 0) continue;
        other->keys = g4_re_or(sh->regular, other->keys, rest.keys);
        return;
    }
    shape->rest[shape->n_rest++] = rest;
}

/* The keys that are no name that may be there, if those are all there may be; NULL: there may be others. */
static const g4_matcher *g4_branch_closing(g4_shaper *sh, const g4_branch *b)
{
    for (const g4_facts *f = b->keys; f != NULL; f = f->next) {
        g4_claim claim = f->fact->claim;
        const g4_matcher *k = f->fact->keys;
        if (k->is_complement && k->keys == G4_RE_NONE && g4_claim_settle(sh, &claim) == 0) return k;
    }
    return NULL;
}

static void g4_objecting_rest(g4_objecting *o)
{
    g4_shaper *sh = o->x->sh;
    g4_key_class classes[G4_SHAPE_MAX_CLASSES];
    const int n_facts = g4_min_int(o->n_general, G4_SHAPE_MAX_GENERAL);
    int n = 1, max = G4_SHAPE_MAX_OVERLAPS, is_mixed = 0;
    if (g4_branch_closing(sh, o->b) != NULL) return; /* nothing else may be there: the common case */
    classes[0] = (g4_key_class) { .keys = g4_objecting_other_keys(o), .is_mixed = n_facts < o->n_general };
    if (n_facts < o->n_general)
        g4_shaper_loosen(sh, o->x->node, "", "more than %d kinds of undeclared members: the others are not held",
                         G4_SHAPE_MAX_GENERAL);
    for (int i = 0; i < n_facts && !g4_shaper_stops(sh); i++)
        n = g4_classes_split(sh, classes, n, max++, o->general[i]->keys, (uint64_t)1 << i, 0);
    for (int i = 0; i < o->shape->n_some && !g4_shaper_stops(sh); i++)
        n = g4_classes_split(sh, classes, n, max++, o->some[i]->keys, 0, 1u << i);
    for (int i = 0; i < n; i++) is_mixed |= classes[i].is_mixed && n_facts == o->n_general;
    if (is_mixed)
        g4_shaper_loosen(
            sh, o->x->node, "",
            "patterns that overlap in more than %d ways, or take too long to tell apart: not all of them are held",
            G4_SHAPE_MAX_OVERLAPS);
    o->shape->rest = g4_arena_alloc(sh->arena, (size_t)n * sizeof *o->shape->rest);
    sh->no_memory |= o->shape->rest == NULL;
    for (int i = 0; i < n && !g4_shaper_stops(sh); i++) g4_objecting_add_class(o, &classes[i]);
}

static int g4_matchers_are_equal(const g4_matcher *a, const g4_matcher *b)
{
    return a->keys == b->keys && a->is_complement == b->is_complement && a->n_names == b->n_names &&
           (a->n_names == 0 || memcmp(a->names, b->names, (size_t)a->n_names * sizeof *a->names) == 0);
}

/* That any of the names is there for which the fact holds. */
static int g4_need_any(g4_shaper *sh, const g4_fact *fact, const g4_matcher *names)
{
    int need = G4_NEED_NEVER;
    for (int i = 0; i < names->n_names; i++)
        if (g4_matcher_has(sh, fact->keys, names->names[i]))
            need = g4_need_or(sh, need, g4_need_var(sh, names->names[i]));
    return need;
}

/* The sorts of members that must be there. Among names alone, that is a formula. */
static void g4_objecting_some(g4_objecting *o)
{
    g4_shaper *sh = o->x->sh;
    const g4_matcher *closing = g4_branch_closing(sh, o->b);
    o->some = g4_arena_alloc(sh->arena, G4_SHAPE_SOME * sizeof(void *));
    sh->no_memory |= o->some == NULL;
    for (const g4_facts *f = o->some != NULL ? o->b->key : NULL; f != NULL; f = f->next) {
        int same = 0;
        g4_claim claim = f->fact->claim;
        if (closing != NULL && g4_claim_settle(sh, &claim) == 1) {
            o->b->need = g4_need_and(sh, o->b->need, g4_need_any(sh, f->fact, closing));
            continue;
        }
        for (int i = 0; i < o->shape->n_some && !same; i++)
            same = g4_claims_equal(o->some[i]->claim, f->fact->claim) &&
                   g4_matchers_are_equal(o->some[i]->keys, f->fact->keys);
        if (same) continue;
        if (o->shape->n_some == G4_SHAPE_SOME) {
            g4_shaper_loosen(sh, o->x->node, "",
                             "more than %d sorts of members that must be there: the others are not held",
                             G4_SHAPE_SOME);
            return;
        }
        o->some[o->shape->n_some++] = f->fact;
    }
}

static g4_object_shape *g4_branch_object(g4_expansion *x, g4_branch *b, int n_shapes)
{
    g4_shaper *sh = x->sh;
    g4_object_shape *shape = g4_arena_alloc(sh->arena, sizeof *shape);
    sh->no_memory |= shape == NULL;
    if (shape == NULL) return NULL;
    *shape = (g4_object_shape) { .min = b->min, .max = b->max };
    g4_objecting o = { .x = x, .b = b, .shape = shape, .n_shapes = n_shapes };
    g4_objecting_some(&o);
    shape->need = b->need;
    if (b->need == G4_NEED_NEVER) return NULL;
    g4_objecting_collect(&o);
    if (!sh->no_memory) g4_objecting_add_ranked(&o);
    int n_patterns = 0;
    for (int i = 0; i < o.n_general; i++) n_patterns += !o.general[i]->keys->is_complement;
    o.is_closed = sh->options.closed && !b->is_open && o.n_named + n_patterns > 0;
    const int is_alive = !sh->no_memory && g4_objecting_members(&o);
    if (is_alive) g4_objecting_rest(&o);
    g4_free(sh->a, o.named);
    g4_free(sh->a, o.general);
    g4_free(sh->a, o.scratch);
    g4_free(sh->a, o.names);
    return is_alive ? shape : NULL;
}

/* ---- Branches to shapes of arrays ---------------------------------------------------------------- */

/* Gather the facts of a list that hold for an element. */
static void g4_gather_items(g4_shaper *sh, g4_gathered *k, const g4_facts *items, int index)
{
    for (const g4_facts *f = items; f != NULL; f = f->next, sh->work++)
        if (index >= f->fact->min && (f->fact->max < 0 || index <= f->fact->max)) g4_gather(sh, k, f->fact);
}

static int g4_items_goal(g4_shaper *sh, const g4_facts *items, int index)
{
    g4_gathered facts = { .n = 0 };
    g4_gather_items(sh, &facts, items, index);
    return g4_gathered_goal(sh, &facts, NULL);
}

/* What is said of elements: of each of the first ones alone, and of more than one. */
typedef struct {
    const g4_facts **alone, *others; /* alone: (n) */
    int n;
} g4_item_facts;

static const g4_item_facts *g4_items_sort(g4_shaper *sh, const g4_facts *items, int n_first)
{
    g4_item_facts *out = g4_arena_alloc(sh->arena, sizeof *out);
    const g4_facts **alone = g4_arena_alloc(sh->arena, (size_t)(n_first + 1) * sizeof *alone);
    sh->no_memory |= out == NULL || alone == NULL;
    if (out == NULL || alone == NULL) return NULL;
    *out = (g4_item_facts) { .alone = alone, .n = n_first };
    for (const g4_facts *f = items; f != NULL; f = f->next) {
        const int is_alone = f->fact->min == f->fact->max && f->fact->min < n_first;
        const g4_facts **list = is_alone ? &alone[f->fact->min] : &out->others;
        *list = g4_facts_add(sh, *list, f->fact);
    }
    return out;
}

/* The goal of an element, with the schemas that all alternatives have for it. */
static int g4_element_with_seen(g4_shaper *sh, int goal, int index)
{
    g4_beside beside = { .n = 0 };
    if (goal <= G4_GOAL_ANY || sh->n_goals > G4_SHAPE_MAX_RANKED || index > G4_SHAPE_MAX_BESIDE) return goal;
    for (int i = sh->seen_arrays.first; i > 0; i = sh->seen[i].next) {
        const g4_json *s = sh->seen[i].schema, *prefix = g4_schema_prefix(sh, s), *items = g4_json_get(s, "items");
        const g4_json *schema = prefix != NULL ? prefix->child : NULL;
        for (int k = 0; k < index && schema != NULL; k++) schema = schema->next;
        if (schema == NULL) schema = items != NULL && items != prefix ? items : g4_json_get(s, "additionalItems");
        if (schema != NULL) g4_beside_add(sh, &beside, sh->goals[goal], schema);
    }
    return beside.is_new ? g4_goal_beside(sh, goal, beside.schemas, beside.n) : goal;
}

int g4_array_goal(g4_shaper *sh, const g4_array_shape *s, int index, unsigned with, unsigned without)
{
    g4_claim more[G4_SHAPE_SOME];
    int n = 0;
    for (int i = 0; i < s->n_some; i++) {
        if (!((with | without) >> i & 1)) continue;
        more[n] = s->some[i].claim;
        if (without >> i & 1) more[n].is_denied = !more[n].is_denied;
        n++;
    }
    const g4_item_facts *items = s->items;
    g4_gathered facts = { .n = 0 };
    if (index < items->n) g4_gather_items(sh, &facts, items->alone[index], index);
    g4_gather_items(sh, &facts, items->others, index);
    int goal = g4_gathered_goal(sh, &facts, NULL);
    for (int i = 0; i < n; i++) goal = g4_goal_with(sh, goal, more[i]);
    return g4_element_with_seen(sh, goal, index);
}

/* Do all elements of a constant differ, as far as is looked at? */
static int g4_value_is_unique(const g4_json *v)
{
    if (g4_json_length(v) > G4_SHAPE_MAX_COMPARED) return 0;
    for (const g4_json *p = v->child; p != NULL; p = p->next)
        for (const g4_json *q = p->next; q != NULL; q = q->next)
            if (g4_json_equal(p, q)) return 0;
    return 1;
}

static g4_array_shape *g4_branch_array(g4_expansion *x, g4_branch *b)
{
    g4_shaper *sh = x->sh;
    g4_array_shape *shape = g4_arena_alloc(sh->arena, sizeof *shape);
    sh->no_memory |= shape == NULL;
    if (shape == NULL) return NULL;
    *shape = (g4_array_shape) { .min = b->min, .max = b->max, .is_unique = b->is_unique };
    if (b->is_unique && b->value != NULL && g4_value_is_unique(b->value)) shape->is_unique = 0;
    for (const g4_facts *f = b->items; f != NULL; f = f->next)
        shape->n_first = g4_max_int(shape->n_first, f->fact->max < 0 ? f->fact->min : f->fact->max + 1);
    for (const g4_facts *f = b->item; f != NULL; f = f->next) {
        if (shape->n_some == G4_SHAPE_SOME) {
            g4_shaper_loosen(sh, x->node, "contains", "more than %d of them: the others are not held", G4_SHAPE_SOME);
            break;
        }
        shape->some[shape->n_some++] = (g4_some_shape) { f->fact->claim, f->fact->from, f->fact->min, f->fact->max };
        shape->n_first = g4_max_int(shape->n_first, f->fact->from);
    }
    shape->items = g4_items_sort(sh, b->items, shape->n_first);
    return shape->items != NULL ? shape : NULL;
}

/* ---- All shapes of a goal ------------------------------------------------------------------------ */

typedef struct { /* branches that are not complete yet, the next one on top */
    g4_branch branch;
    int n_chosen;
} g4_pending_branch;

typedef struct {
    g4_expansion x;
    g4_pending_branch *pending;
    int n_pending, cap_pending, n_begun, n_shapes, n_apart; /* n_apart: alternatives that constants tell apart */
    int n_facts;                                            /* of the grammar, before this */
    void **last;                                            /* where the next shape is linked */
    int is_over;                                            /* a limit is reached */
} g4_expander;

static void g4_expander_push(g4_expander *e, const g4_branch *b, int n_chosen)
{
    g4_shaper *sh = e->x.sh;
    g4_pending_branch *p = g4_array_grow(sh->a, e->pending, e->n_pending, &e->cap_pending, sizeof *p);
    sh->no_memory |= p == NULL;
    if (p == NULL) return;
    e->pending = p;
    p[e->n_pending++] = (g4_pending_branch) { *b, n_chosen };
    e->n_begun++;
    e->is_over |= e->x.level < 3 && (e->n_begun > G4_SHAPE_MAX_BRANCHES + 2 * e->n_apart ||
                                     sh->n_facts - e->n_facts > G4_SHAPE_MAX_ADDED + 50 * e->n_apart);
}

/* A branch for each alternative, the first on top. */
static void g4_expander_split(g4_expander *e, const g4_branch *b, const g4_split *choice, int n_chosen)
{
    const int base = e->n_pending;
    for (const g4_alternative *a = choice->alternatives; a != NULL && choice->is_apart; a = a->next)
        e->n_apart += e->n_apart < G4_SHAPE_MAX_APART;
    for (const g4_alternative *a = choice->alternatives; a != NULL && !e->is_over; a = a->next) {
        g4_branch own = *b;
        for (const g4_facts *f = a->facts; f != NULL; f = f->next) own.todo = g4_facts_add(e->x.sh, own.todo, f->fact);
        g4_expander_push(e, &own, n_chosen + (choice->alternatives->next != NULL));
    }
    for (int i = base, j = e->n_pending - 1; i < j; i++, j--) {
        const g4_pending_branch swap = e->pending[i];
        e->pending[i] = e->pending[j];
        e->pending[j] = swap;
    }
}

static void g4_expander_emit(g4_expander *e, g4_branch *b)
{
    g4_branch_finish_trackers(&e->x, b);
    if (b->is_dead || g4_shaper_stops(e->x.sh)) return;
    if (e->x.type == G4_T_OBJECT) {
        g4_object_shape *shape = g4_branch_object(&e->x, b, e->n_shapes);
        if (shape == NULL) return;
        *e->last = shape;
        e->last = (void **)&shape->next;
    } else {
        g4_array_shape *shape = g4_branch_array(&e->x, b);
        if (shape == NULL) return;
        *e->last = shape;
        e->last = (void **)&shape->next;
    }
    e->is_over |= ++e->n_shapes > G4_SHAPE_MAX_SHAPES + e->n_apart;
}

/* All shapes, linked from *first; 0: there are too many at this level. */
static int g4_expander_run(g4_expander *e, const g4_goal *goal, void **first)
{
    g4_shaper *sh = e->x.sh;
    g4_branch b = { .need = G4_NEED_ALWAYS, .max = -1 };
    *first = NULL;
    e->last = first;
    for (int i = goal->n - 1; i >= 0; i--) {
        const g4_schema_info *info = goal->claims[i].is_value ? NULL : g4_shaper_info(sh, goal->claims[i].node);
        const int order = info != NULL && info->walked == sh->walk ? info->order : G4_SHAPE_UNRANKED;
        g4_branch_add(sh, &b, (g4_fact) { .claim = goal->claims[i], .order = order, .tracker = -1 });
    }
    g4_expander_push(e, &b, 0);
    while (e->n_pending > 0 && !e->is_over && !g4_shaper_stops(sh)) {
        g4_pending_branch next = e->pending[--e->n_pending];
        g4_split choice;
        g4_branch_run(&e->x, &next.branch);
        if (next.branch.is_dead) continue;
        if (next.branch.choices != NULL && g4_branch_choose(&e->x, &next.branch, &choice, next.n_chosen))
            g4_expander_split(e, &next.branch, &choice, next.n_chosen);
        else if (!next.branch.is_dead && !g4_expansion_is_over(&e->x))
            g4_expander_emit(e, &next.branch);
        e->is_over |= g4_expansion_is_over(&e->x);
    }
    g4_free(sh->a, e->pending);
    return !e->is_over;
}

static void *g4_shapes_of(g4_shaper *sh, int number, int type)
{
    static const char *const loosened[] = { "", "too many combinations: what not, oneOf and if exclude is not held",
                                            "too many combinations: only one of several choices is held",
                                            "too many combinations: its alternatives are not held" };
    const g4_goal *goal = sh->goals[number];
    void *first = NULL;
    for (int i = 0; i < goal->n; i++)
        if (!g4_claim_may(sh, goal->claims[i], type)) return NULL;
    int has_exclusions = 1;
    for (int level = 0; level < 4; level++) {
        g4_expander e = { .x = { .sh = sh, .type = type, .level = level, .work_end = sh->work + G4_SHAPE_MAX_WORK },
                          .n_facts = sh->n_facts };
        e.x.node = goal->n > 0 ? goal->claims[0].node : sh->root;
        if (level == 1 && !has_exclusions) continue; /* it would be the same again */
        if (level > 0) g4_shaper_loosen(sh, e.x.node, "", "%s", loosened[level]);
        if (g4_expander_run(&e, goal, &first)) return first;
        has_exclusions = e.x.has_exclusions;
    }
    return first;
}

/* ---- The order of members ------------------------------------------------------------------------ */

static void g4_seen_add(g4_shaper *sh, g4_seen *list, const g4_json *schema)
{
    g4_seen_schema *seen = g4_array_grow(sh->a, sh->seen, sh->n_seen, &sh->cap_seen, sizeof *seen);
    sh->no_memory |= seen == NULL;
    if (seen == NULL) return;
    sh->seen = seen;
    seen[sh->n_seen] = (g4_seen_schema) { schema, 0 };
    if (list->first == 0)
        list->first = sh->n_seen;
    else
        seen[list->last].next = sh->n_seen;
    list->last = sh->n_seen++;
}

/* Rank a name that is not ranked yet. */
static void g4_rank_name(g4_shaper *sh, int32_t number)
{
    g4_name *name = &sh->names[number];
    if (name->ranked == sh->walk) return;
    name->ranked = sh->walk;
    name->rank = sh->n_ranked;
    name->seen = (g4_seen) { 0, 0 };
    int32_t *ranked = g4_array_grow(sh->a, sh->ranked, sh->n_ranked, &sh->cap_ranked, sizeof *ranked);
    sh->no_memory |= ranked == NULL;
    if (ranked == NULL) return;
    sh->ranked = ranked;
    ranked[sh->n_ranked++] = number;
}

/* Note the order in which names are required, or others depend on them. */
static void g4_list_name(g4_shaper *sh, const char *text, size_t len)
{
    const int32_t number = g4_shaper_name(sh, text, len); /* may move the names */
    g4_name *name = &sh->names[number];
    if (name->listed == sh->walk) return;
    name->listed = sh->walk;
    name->place = sh->n_listed++;
}

static void g4_list_names(g4_shaper *sh, const g4_json *list)
{
    for (const g4_json *q = list->kind == G4_JSON_ARRAY ? list->child : NULL; q != NULL; q = q->next)
        if (q->kind == G4_JSON_STRING) g4_list_name(sh, q->text, q->text_len);
}

/* Rank the names of a schema and of those that apply where it does, in the order of the text. */
static void g4_rank_names(g4_shaper *sh, const g4_json *s, int *n_schemas, int depth)
{
    if (s == NULL || s->kind != G4_JSON_OBJECT || depth > G4_SHAPE_MAX_CHAIN || g4_shaper_stops(sh)) return;
    g4_schema_info *info = g4_shaper_info(sh, s);
    if (info->walked == sh->walk) return;
    info->walked = sh->walk;
    info->order = (*n_schemas)++;
    const g4_json *properties = g4_json_get(s, "properties");
    for (const g4_json *p = g4_json_is(properties, G4_JSON_OBJECT) ? properties->child : NULL; p != NULL; p = p->next) {
        const int32_t number = g4_shaper_name(sh, p->key, p->key_len);
        g4_rank_name(sh, number);
        g4_seen_add(sh, &sh->names[number].seen, p);
    }
    for (const g4_json *m = s->child; m != NULL; m = m->next) {
        const g4_keyword keyword = g4_keyword_of(m);
        const int is_list = keyword == G4_KEY_ALL_OF || keyword == G4_KEY_ANY_OF || keyword == G4_KEY_ONE_OF;
        const int is_map = keyword == G4_KEY_DEPENDENCIES || keyword == G4_KEY_DEPENDENT_SCHEMAS ||
                           keyword == G4_KEY_DEPENDENT_REQUIRED;
        if (keyword == G4_KEY_PATTERN_PROPERTIES)
            for (const g4_json *p = m->kind == G4_JSON_OBJECT ? m->child : NULL; p != NULL; p = p->next)
                g4_seen_add(sh, &sh->seen_patterns, p);
        if (keyword == G4_KEY_REQUIRED) g4_list_names(sh, m);
        if (keyword == G4_KEY_ADDITIONAL_PROPERTIES) g4_seen_add(sh, &sh->seen_others, m);
        if (keyword == G4_KEY_ITEMS || keyword == G4_KEY_PREFIX_ITEMS) g4_seen_add(sh, &sh->seen_arrays, s);
        if (keyword == G4_KEY_REF)
            g4_rank_names(sh, g4_refs_find(sh->refs, s, m), n_schemas, depth + 1);
        else if (keyword == G4_KEY_IF || g4_json_key_is(m, "then") || g4_json_key_is(m, "else"))
            g4_rank_names(sh, m, n_schemas, depth + 1);
        else if (is_list ? m->kind == G4_JSON_ARRAY : is_map && m->kind == G4_JSON_OBJECT)
            for (const g4_json *k = m->child; k != NULL; k = k->next) {
                if (is_map) g4_list_name(sh, k->key, k->key_len);
                if (is_map) g4_list_names(sh, k);
                g4_rank_names(sh, k, n_schemas, depth + 1);
            }
    }
}

static void g4_rank_goal(g4_shaper *sh, const g4_goal *goal)
{
    int n_schemas = 0;
    sh->walk++;
    sh->n_ranked = 0;
    sh->n_seen = 1;
    sh->n_listed = 0;
    sh->seen_patterns = sh->seen_others = sh->seen_arrays = (g4_seen) { 0, 0 };
    for (int i = 0; i < goal->n_beside; i++) g4_rank_names(sh, goal->beside[i], &n_schemas, 0);
    for (int i = 0; i < goal->n; i++)
        if (!goal->claims[i].is_value && !goal->claims[i].is_denied)
            g4_rank_names(sh, goal->claims[i].node, &n_schemas, 0);
}

g4_object_shape *g4_shape_objects(g4_shaper *sh, int goal)
{
    g4_rank_goal(sh, sh->goals[goal]);
    return g4_shapes_of(sh, goal, G4_T_OBJECT);
}

g4_array_shape *g4_shape_arrays(g4_shaper *sh, int goal)
{
    g4_rank_goal(sh, sh->goals[goal]);
    return g4_shapes_of(sh, goal, G4_T_ARRAY);
}
