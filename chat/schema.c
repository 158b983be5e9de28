/* schema.c - JSON Schema to a grammar. Each goal of shape.c becomes a rule, in one of two spellings: JSON text, or the
 * family's call syntax (bare keys, strings between control tokens, no blanks). Members stand in the order in which the
 * schema first names them, in calls in the template's; those that it does not name stand last. What is left of the
 * conditions on members (which must be there with which, how many) is carried from one place to the next, so that an
 * object is a network of places, not of combinations. Elements are counted by places too, those without parts by an
 * expression with a count in it. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define G4_SCHEMA_INDENT 24               /* blanks at the start of a line, at most */
#define G4_SCHEMA_MAX_PLACES 4096         /* of one array: elements times what is counted of them */
#define G4_SCHEMA_MAX_CHOICES 800000      /* of one array: places times what the next element may count for */
#define G4_SCHEMA_MAX_GAPS 64             /* what may be left of an object's conditions at one place */
#define G4_SCHEMA_MAX_COUNTED_GAPS 2000   /* the same where members are counted, for all counts */
#define G4_SCHEMA_MAX_MEMBER_PLACES 20000 /* of one object, when its members are counted */
#define G4_SCHEMA_MAX_NODES 250000        /* of a network, beyond which anything is allowed where a schema is left */
#define G4_SCHEMA_MAX_LEFT_OUT 8000       /* members of an object, one behind the other, that may be left out */
#define G4_SCHEMA_MAX_TRIES 4             /* at tools, each time with one more that takes any arguments */
#define G4_SCHEMA_MAX_CHOSEN 500          /* places of an array whose elements differ and have few values */
#define G4_SCHEMA_FEW_ELEMENTS 16         /* more of them, without parts, are an expression */

typedef struct {
    g4_net *net;
    g4_regular *regular;
    g4_shaper *sh;
    g4_re space, open_array, close_array, open_object, close_object, comma, colon, words[8];
    g4_re bare_key; /* keys of calls that stand without quotes */
    int32_t *todo;  /* goals whose rules are not built yet */
    int n_todo, cap_todo;
    int distinct_left; /* of G4_DISTINCT_MAX_WORK */
} g4_schema;

static int g4_schema_stops(g4_schema *c) { return g4_net_stops_now(c->net) || g4_shaper_stops(c->sh); }

/* ---- Pieces of text ------------------------------------------------------------------------------ */

static g4_re g4_schema_text(g4_schema *c, const char *s) { return g4_re_text(c->regular, s, strlen(s)); }

static g4_re g4_schema_join(g4_schema *c, const char *before, g4_re re, const char *behind)
{
    return g4_re_concat(c->regular, g4_schema_text(c, before), g4_re_concat(c->regular, re, g4_schema_text(c, behind)));
}

/* Keys that are read back from a call as they are: nothing in them ends a key, and indices stand at their end only, as
 * in page[size]. */
#define G4_KEY_CHARS ":=,{}\\[\\]\"'\\x7f-\\x9f"
static const char g4_schema_bare_key[] = "^[^\\s\\x00-\\x20" G4_KEY_CHARS "](?:[^\\x00-\\x1f" G4_KEY_CHARS
                                         "]*[^\\s\\x00-\\x20" G4_KEY_CHARS "])?(?:\\[[\\w.$-]*\\])*$";

/* Brackets, commas and colons with the blanks that JSON has around them: one, or a line break with its indentation. */
static void g4_schema_open(g4_schema *c)
{
    g4_regular *r = c->regular;
    const g4_re blank = g4_re_range(r, ' ', ' ');
    c->space = G4_RE_EMPTY;
    c->bare_key = G4_RE_NONE;
    if (c->sh->is_call) {
        g4_pattern_re(r, &c->bare_key, g4_schema_bare_key, sizeof g4_schema_bare_key - 1, G4_RAW, "", NULL);
    } else {
        const g4_re line = g4_re_concat(r, g4_re_range(r, '\n', '\n'), g4_re_repeat(r, blank, 0, G4_SCHEMA_INDENT));
        c->space = g4_re_optional(r, g4_re_or(r, blank, line));
    }
    c->open_array = g4_schema_join(c, "[", c->space, "");
    c->close_array = g4_schema_join(c, "", c->space, "]");
    c->open_object = g4_schema_join(c, "{", c->space, "");
    c->close_object = g4_schema_join(c, "", c->space, "}");
    c->comma = g4_schema_join(c, ",", c->space, "");
    c->colon = g4_schema_join(c, ":", c->sh->is_call ? G4_RE_EMPTY : g4_re_optional(r, blank), "");
    for (int i = 0; i < 8; i++) { /* null, false and true, by bits */
        const g4_re null = i & 1 ? g4_schema_text(c, "null") : G4_RE_NONE;
        const g4_re no = i & 2 ? g4_schema_text(c, "false") : G4_RE_NONE;
        const g4_re yes = i & 4 ? g4_schema_text(c, "true") : G4_RE_NONE;
        c->words[i] = g4_re_or(r, null, g4_re_or(r, no, yes));
    }
}

/* ---- Values without parts ------------------------------------------------------------------------ */

/* What stands between quotes in JSON, and what follows. Strings of all but some are a lexeme of their own: then a mask
 * is made without walking through all of them. */
static void g4_schema_put_quoted(g4_schema *c, int32_t from, int32_t to, g4_re string, g4_re behind)
{
    if (!g4_re_is_and(c->regular, string)) {
        g4_net_lexeme(c->net, from, to, g4_re_concat(c->regular, g4_schema_join(c, "\"", string, "\""), behind));
        return;
    }
    const int32_t inside = g4_net_node(c->net), end = g4_net_node(c->net);
    g4_net_lexeme(c->net, from, inside, g4_schema_text(c, "\""));
    g4_net_lexeme(c->net, inside, end, string);
    g4_net_lexeme(c->net, end, to, g4_schema_join(c, "\"", behind, ""));
}

static void g4_schema_put_scalars(g4_schema *c, int32_t from, int32_t to, const g4_scalars *k)
{
    const g4_re words = c->words[k->null + 2 * k->no + 4 * k->yes];
    const g4_re number = k->number == G4_RE_ANY ? g4_re_any_number(c->regular) : k->number;
    const g4_re string = g4_scalars_text(c->sh, k->string);
    if (words != G4_RE_NONE) g4_net_lexeme(c->net, from, to, words);
    if (number != G4_RE_NONE) g4_net_lexeme(c->net, from, to, number);
    if (string == G4_RE_NONE) return;
    if (!c->sh->is_call) {
        g4_schema_put_quoted(c, from, to, string, G4_RE_EMPTY);
        return;
    }
    const int32_t inside = g4_net_node(c->net), behind = g4_net_node(c->net);
    g4_net_control(c->net, from, inside, G4_CONTROL_QUOTE);
    g4_net_lexeme(c->net, inside, behind, string);
    g4_net_control(c->net, behind, to, G4_CONTROL_QUOTE);
}

/* In JSON, all texts of the values without parts. */
static g4_re g4_schema_scalar_text(g4_schema *c, const g4_scalars *k)
{
    const g4_re words = c->words[k->null + 2 * k->no + 4 * k->yes];
    const g4_re number = k->number == G4_RE_ANY ? g4_re_any_number(c->regular) : k->number;
    const g4_re inside = g4_scalars_text(c->sh, k->string);
    const g4_re string = inside == G4_RE_NONE ? G4_RE_NONE : g4_schema_join(c, "\"", inside, "\"");
    return g4_re_or(c->regular, words, g4_re_or(c->regular, number, string));
}

static int g4_schema_has_parts(g4_schema *c, int goal)
{
    const g4_goal *k = c->sh->goals[goal];
    int types = G4_T_ARRAY | G4_T_OBJECT;
    for (int i = 0; i < k->n; i++) {
        if (!g4_claim_may(c->sh, k->claims[i], G4_T_ARRAY)) types &= ~G4_T_ARRAY;
        if (!g4_claim_may(c->sh, k->claims[i], G4_T_OBJECT)) types &= ~G4_T_OBJECT;
    }
    return types != 0;
}

/* The rule of a goal, which is built later. */
static int g4_schema_rule(g4_schema *c, int goal)
{
    g4_goal *k = c->sh->goals[goal];
    if (k->rule >= 0) return k->rule;
    int32_t *todo = g4_array_grow(c->net->a, c->todo, c->n_todo, &c->cap_todo, sizeof *todo);
    if (todo == NULL) {
        c->net->failed = G4_NET_NO_MEMORY;
        return 0;
    }
    c->todo = todo;
    todo[c->n_todo++] = goal;
    return k->rule = g4_net_rule(c->net, NULL, 0);
}

/* A value that meets the goal, from node to node. */
static void g4_schema_put(g4_schema *c, int32_t from, int32_t to, int goal)
{
    if (goal == G4_GOAL_NONE || g4_schema_stops(c)) return;
    if (g4_schema_has_parts(c, goal))
        g4_net_call(c->net, from, to, g4_schema_rule(c, goal));
    else
        g4_schema_put_scalars(c, from, to, g4_goal_scalars(c->sh, goal));
}

/* ---- Arrays -------------------------------------------------------------------------------------- */

typedef struct { /* an array: a place for each number of elements so far, and each count of those that are counted */
    const g4_array_shape *shape;
    int32_t *places; /* the node behind the elements so far; 0: not made; negative: what may follow is built */
    int32_t from, to;
    int last; /* so many elements, or more when there is no maximum */
    int min, max;
    int top[G4_SHAPE_SOME]; /* counts beyond are not told apart */
    int n_some, n_places;
    int is_unique; /* elements are items that must differ */
} g4_arraying;

/* Elements and counts of a place, from its number. */
static void g4_place_read(const g4_arraying *k, int place, int *index, int counts[G4_SHAPE_SOME])
{
    *index = place % (k->last + 1);
    place /= k->last + 1;
    for (int i = 0; i < k->n_some; i++) {
        counts[i] = place % (k->top[i] + 1);
        place /= k->top[i] + 1;
    }
}

static int g4_place_number(const g4_arraying *k, int index, const int counts[G4_SHAPE_SOME])
{
    int place = 0;
    for (int i = k->n_some - 1; i >= 0; i--) place = place * (k->top[i] + 1) + counts[i];
    return place * (k->last + 1) + index;
}

static int32_t g4_place_node(g4_schema *c, g4_arraying *k, int place)
{
    if (k->places[place] == 0) k->places[place] = g4_net_node(c->net);
    return abs(k->places[place]);
}

/* The element behind `from`, the counted ones among `choice` (a digit each: 0 whatever it is, 1 counted, 2 not). */
static void g4_schema_put_element(g4_schema *c, g4_arraying *k, int32_t from, int index,
                                  const int counts[G4_SHAPE_SOME], int choice)
{
    unsigned with = 0, without = 0;
    int next[G4_SHAPE_SOME] = { 0 };
    for (int i = 0; i < k->n_some; i++, choice /= 3) {
        const g4_some_shape *some = &k->shape->some[i];
        const int pick = choice % 3, has_max = some->max >= 0;
        const int is_counted = index >= some->from && (has_max || counts[i] < some->min);
        next[i] = counts[i];
        if (pick == 0 && is_counted && has_max) return;
        if (pick == 1 && (!is_counted || counts[i] == k->top[i])) return;
        if (pick == 2 && !(is_counted && has_max)) return;
        if (pick == 1) next[i]++;
        with |= (unsigned)(pick == 1) << i;
        without |= (unsigned)(pick == 2) << i;
    }
    const int goal = g4_array_goal(c->sh, k->shape, index, with, without);
    if (goal == G4_GOAL_NONE) return;
    const int place = g4_place_number(k, index < k->last ? index + 1 : index, next);
    g4_schema_put(c, from, g4_place_node(c, k, place), goal);
}

/* All spellings of the value of an element, given with what stands before it. */
static g4_re g4_schema_same_item(g4_regular *r, const char *text, size_t n)
{
    g4_number value;
    while (n > 0 && (text[0] == ',' || text[0] == ' ' || text[0] == '\n')) {
        text++;
        n--;
    }
    if (n > 0 && text[0] == '"') return g4_re_same_string(r, text, n);
    const int is_number = n > 0 && (text[0] == '-' || (text[0] >= '0' && text[0] <= '9'));
    return is_number && g4_number_read(&value, text, n) ? g4_re_equal_number(r, &value) : g4_re_text(r, text, n);
}

/* What the element at an index may be where elements must differ: numbers in spellings that can be compared. */
static g4_re g4_schema_unique_item(g4_schema *c, const g4_array_shape *s, int index)
{
    const int goal = g4_array_goal(c->sh, s, index, 0, 0);
    if (goal == G4_GOAL_NONE) return G4_RE_NONE;
    g4_scalars scalars = *g4_goal_scalars(c->sh, goal);
    const g4_re comparable = g4_re_comparable_numbers(c->regular);
    scalars.number = scalars.number == G4_RE_ANY ? comparable : g4_re_and(c->regular, scalars.number, comparable);
    return g4_schema_scalar_text(c, &scalars);
}

/* The element behind so many others, which must differ from them. */
static void g4_schema_put_unique(g4_schema *c, int32_t from, int32_t to, int index, g4_re item)
{
    g4_net_item(c->net, from, to, index > 0 ? c->comma : G4_RE_EMPTY, item);
}

/* What may stand behind the elements of a place. */
static void g4_schema_put_place(g4_schema *c, g4_arraying *k, int place)
{
    int index, counts[G4_SHAPE_SOME] = { 0 }, choices = 1, may_end;
    g4_place_read(k, place, &index, counts);
    may_end = index >= k->min;
    for (int i = 0; i < k->n_some; i++) {
        may_end &= counts[i] >= k->shape->some[i].min;
        choices *= 3;
    }
    if (may_end) g4_net_lexeme(c->net, k->places[place], k->to, c->close_array);
    if (k->max >= 0 && index >= k->max) return;
    if (k->is_unique) {
        g4_schema_put_unique(c, k->places[place], g4_place_node(c, k, index < k->last ? index + 1 : index), index,
                             g4_schema_unique_item(c, k->shape, index));
        return;
    }
    int32_t item = k->places[place];
    if (index > 0) {
        item = g4_net_node(c->net);
        g4_net_lexeme(c->net, k->places[place], item, c->comma);
    }
    for (int choice = 0; choice < choices && !g4_net_stops(c->net); choice++)
        g4_schema_put_element(c, k, item, index, counts, choice);
}

/* How many places it takes; what is too much is loosened. */
static void g4_arraying_measure(g4_schema *c, g4_arraying *k, const g4_json *node)
{
    k->min = k->shape->min;
    k->max = k->shape->max;
    k->n_some = k->shape->n_some;
    if (k->max > G4_SCHEMA_MAX_PLACES) {
        g4_shaper_loosen(c->sh, node, "maxItems", "above %d: not held", G4_SCHEMA_MAX_PLACES);
        k->max = -1;
    }
    if (k->min > G4_SCHEMA_MAX_PLACES) {
        g4_shaper_loosen(c->sh, node, "minItems", "above %d: that many are asked for", G4_SCHEMA_MAX_PLACES);
        k->min = G4_SCHEMA_MAX_PLACES;
    }
    k->last = k->max >= 0 ? k->max : g4_max_int(1, g4_max_int(k->min, k->shape->n_first)); /* behind 0, no comma */
    int64_t n = k->last + 1, choices = 1;
    for (int i = 0; i < k->n_some; i++) {
        const g4_some_shape *some = &k->shape->some[i];
        k->top[i] = some->max >= 0 ? some->max : some->min;
        n = n > G4_SCHEMA_MAX_PLACES * 8 ? n : n * (k->top[i] + (int64_t)1);
        choices *= 3;
    }
    if (k->n_some > 0 && (n > G4_SCHEMA_MAX_PLACES * 8 || n * choices > G4_SCHEMA_MAX_CHOICES)) {
        g4_shaper_loosen(c->sh, node, "contains", "counts up to too high a number: not held");
        k->n_some = 0;
        n = k->last + 1;
    }
    k->n_places = (int)n;
}

/* Elements without parts, all alike, as one expression that counts. 0: they are not. */
static int g4_schema_put_flat(g4_schema *c, int32_t from, int32_t to, const g4_array_shape *s)
{
    g4_regular *r = c->regular;
    const int goal = g4_array_goal(c->sh, s, 0, 0, 0);
    if (c->sh->is_call || s->n_some > 0 || s->n_first > 0 || g4_max_int(s->min, s->max) <= G4_SCHEMA_FEW_ELEMENTS ||
        g4_schema_has_parts(c, goal))
        return 0;
    const g4_re item = g4_schema_scalar_text(c, g4_goal_scalars(c->sh, goal));
    const g4_re more =
        g4_re_repeat(r, g4_re_concat(r, c->comma, item), g4_max_int(s->min - 1, 0), s->max < 0 ? -1 : s->max - 1);
    g4_re all = g4_re_concat(r, item, more);
    if (s->min == 0) all = g4_re_optional(r, all);
    g4_net_lexeme(c->net, from, to, g4_re_concat(r, c->open_array, g4_re_concat(r, all, c->close_array)));
    return 1;
}

/* Why elements that must differ are not held to it: they have parts, are no single lexeme, or are counted by what they
 * are, so that a value may be used up that a count needs. NULL: it can be held. */
static const char *g4_schema_why_not_unique(g4_schema *c, const g4_array_shape *s)
{
    for (int i = 0; i <= s->n_first; i++) {
        const int goal = g4_array_goal(c->sh, s, i, 0, 0);
        const int is_reached = s->max < 0 || i < s->max;
        if (!is_reached || goal == G4_GOAL_NONE) continue;
        if (s->n_some > 0) return "is not held beside contains";
        if (g4_schema_has_parts(c, goal)) return "is held for elements without parts only: not held";
        if (c->sh->is_call && g4_goal_scalars(c->sh, goal)->string != G4_RE_NONE)
            return "is not held for strings in calls";
    }
    return NULL;
}

/* Must elements differ, and can that be held? */
static int g4_schema_is_unique(g4_schema *c, const g4_array_shape *s, const g4_json *node)
{
    if (!s->is_unique || (s->max >= 0 && s->max <= 1)) return 0;
    const char *why = g4_schema_why_not_unique(c, s);
    if (why != NULL) g4_shaper_loosen(c->sh, node, "uniqueItems", "%s", why);
    return why == NULL;
}

typedef struct { /* behind `index` elements, of whose values these are used that others may need */
    int index;
    uint64_t used;
    int32_t node;
} g4_choosing_place;

typedef struct { /* elements that must be there and differ, where not each choice leaves values for the others */
    g4_schema *c;
    g4_arraying *k;
    const g4_distinct *d;
    g4_re *parts; /* (sorts, values + 1) what an element may be with each value, and with any other */
    g4_choosing_place places[G4_SCHEMA_MAX_CHOSEN];
    int n;
} g4_choosing_elements;

/* The node of a place, which is made where it is new; 0: there are too many. */
static int32_t g4_choosing_node(g4_choosing_elements *e, int index, uint64_t used)
{
    if (index == e->d->n) return g4_place_node(e->c, e->k, index);
    for (int i = e->n - 1; i >= 0 && e->places[i].index == index; i--)
        if (e->places[i].used == used) return e->places[i].node;
    if (e->n == G4_SCHEMA_MAX_CHOSEN) return 0;
    const int32_t node = g4_net_node(e->c->net);
    e->places[e->n++] = (g4_choosing_place) { index, used, node };
    return node;
}

/* What an element of a sort may be with one of the values that are told apart, or any other. */
static g4_re g4_choosing_part(g4_choosing_elements *e, int sort, int value)
{
    const g4_distinct *d = e->d;
    g4_regular *r = e->c->regular;
    g4_re *part = &e->parts[sort * (G4_DISTINCT_VALUES + 1) + value];
    if (*part >= 0) return *part;
    const g4_re all = g4_re_any_of(r, d->values, d->n_values);
    *part = g4_re_and(r, d->sorts[sort].item, value < d->n_values ? d->values[value] : g4_re_not(r, all));
    if (g4_re_is_none(r, *part) == 1) *part = G4_RE_NONE;
    return *part;
}

/* The elements of a place: those whose values leave others for all that must follow. 0: there are too many places. */
static int g4_choosing_put(g4_choosing_elements *e, g4_choosing_place from)
{
    for (int v = 0; v <= e->d->n_values; v++) {
        const uint64_t bit = v < e->d->n_values ? (uint64_t)1 << v : 0;
        const g4_re item = from.used & bit ? G4_RE_NONE : g4_choosing_part(e, e->d->sort_of[from.index], v);
        if (item == G4_RE_NONE || !g4_distinct_fits(e->d, from.index + 1, from.used | bit)) continue;
        const int32_t to = g4_choosing_node(e, from.index + 1, from.used | bit);
        if (to == 0) return 0;
        g4_schema_put_unique(e->c, from.node, to, from.index, item);
    }
    return 1;
}

/* The array up to the last element that must be there, where values must be left for others. 0: there are too many
 * places, and nothing leads to what was made of them. */
static int g4_schema_put_chosen(g4_schema *c, g4_arraying *k, const g4_distinct *d)
{
    const size_t n_parts = (size_t)d->n_sorts * (G4_DISTINCT_VALUES + 1);
    g4_choosing_elements e = { .c = c, .k = k, .d = d, .parts = g4_alloc(c->net->a, n_parts, sizeof *e.parts) };
    if (e.parts == NULL) {
        c->net->failed = G4_NET_NO_MEMORY;
        return 0;
    }
    memset(e.parts, -1, n_parts * sizeof *e.parts);
    int has_room = g4_choosing_node(&e, 0, 0) != 0;
    for (int i = 0; i < e.n && has_room && !g4_schema_stops(c); i++) has_room = g4_choosing_put(&e, e.places[i]);
    if (has_room) g4_net_lexeme(c->net, k->from, e.places[0].node, c->open_array);
    g4_free(c->net->a, e.parts);
    return has_room;
}

/* Have the elements that must be there enough values, so that they can differ? */
static g4_distinctness g4_schema_distinct(g4_schema *c, const g4_array_shape *s, g4_distinct *d)
{
    const int n = g4_min_int(s->min, G4_SCHEMA_MAX_PLACES);
    g4_re *items = n > 1 ? g4_alloc(c->net->a, (size_t)n, sizeof *items) : NULL;
    if (n <= 1) return G4_DISTINCT_ALWAYS;
    if (items == NULL) {
        c->net->failed = G4_NET_NO_MEMORY;
        return G4_DISTINCT_NEVER;
    }
    for (int i = 0; i < n; i++) items[i] = i > 0 && i > s->n_first ? items[i - 1] : g4_schema_unique_item(c, s, i);
    const g4_distinctness how = g4_distinct_open(d, items, n);
    g4_free(c->net->a, items);
    return how;
}

static void g4_schema_unique_unheld(g4_schema *c, g4_arraying *k, const g4_json *node)
{
    g4_shaper_loosen(c->sh, node, "uniqueItems", "whether values are left for all that must follow: not held");
    k->is_unique = 0;
}

/* An array place by place; choice: of elements that must differ and have few values, else NULL. */
static void g4_schema_put_places(g4_schema *c, g4_arraying *k, const g4_distinct *choice, const g4_json *node)
{
    if (k->is_unique) { /* a call of its own: there the elements are remembered */
        const int rule = g4_net_rule(c->net, NULL, 0);
        if (c->net->failed) return;
        c->net->same_item = g4_schema_same_item;
        g4_net_call(c->net, k->from, k->to, rule);
        k->from = c->net->rules[rule].start;
        k->to = c->net->rules[rule].end;
    }
    g4_arraying_measure(c, k, node);
    k->places = g4_alloc(c->net->a, (size_t)k->n_places, sizeof *k->places);
    if (k->places == NULL) {
        c->net->failed = G4_NET_NO_MEMORY;
        return;
    }
    if (choice == NULL || !g4_schema_put_chosen(c, k, choice)) {
        if (choice != NULL) g4_schema_unique_unheld(c, k, node);
        g4_net_lexeme(c->net, k->from, g4_place_node(c, k, 0), c->open_array);
    }
    for (int changed = 1; changed && !g4_schema_stops(c);) { /* places come into being in front of and behind others */
        changed = 0;
        for (int i = 0; i < k->n_places && !g4_schema_stops(c); i++) {
            if (k->places[i] <= 0) continue;
            changed = 1;
            g4_schema_put_place(c, k, i);
            k->places[i] = -k->places[i];
        }
    }
    g4_free(c->net->a, k->places);
}

static void g4_schema_put_array(g4_schema *c, int32_t from, int32_t to, const g4_array_shape *s, const g4_json *node)
{
    g4_arraying k = { .shape = s, .from = from, .to = to, .is_unique = g4_schema_is_unique(c, s, node) };
    g4_distinct d = { .left = c->distinct_left, .r = c->regular, .same_item = g4_schema_same_item };
    const g4_distinctness how = k.is_unique ? g4_schema_distinct(c, s, &d) : G4_DISTINCT_ALWAYS;
    if (how == G4_DISTINCT_UNKNOWN) g4_schema_unique_unheld(c, &k, node);
    if (how != G4_DISTINCT_NEVER && (k.is_unique || !g4_schema_put_flat(c, from, to, s)))
        g4_schema_put_places(c, &k, how == G4_DISTINCT_CHOICE ? &d : NULL, node);
    c->distinct_left = d.left;
    g4_distinct_close(&d);
}

/* ---- Objects ------------------------------------------------------------------------------------- */

typedef struct { /* between two members: what is left of the object's conditions */
    int need, count;
    unsigned met, seen;   /* sorts of members that are there; free members that are */
    int32_t next, behind; /* the node in front of another member, and that behind the last one; 0: not made */
} g4_gap;

typedef struct {
    g4_schema *c;
    const g4_object_shape *shape;
    int32_t to;
    int counts;          /* count members at all? Then up to `top` */
    int top, is_bounded; /* is_bounded: there may be no more than that */
    int last_required;   /* the last ordered member that must be there; -1: none */
    unsigned free_required;
    g4_gap *gaps, *next_gaps; /* at this member, and behind it */
    int n_gaps, n_next, cap_gaps, cap_next;
    const g4_json *node;
} g4_objecting_net;

static g4_gap *g4_gap_find(g4_objecting_net *o, g4_gap gap, int is_next)
{
    g4_net *net = o->c->net;
    g4_gap **gaps = is_next ? &o->next_gaps : &o->gaps;
    int *n = is_next ? &o->n_next : &o->n_gaps, *cap = is_next ? &o->cap_next : &o->cap_gaps;
    for (int i = 0; i < *n; i++)
        if ((*gaps)[i].need == gap.need && (*gaps)[i].count == gap.count && (*gaps)[i].met == gap.met &&
            (*gaps)[i].seen == gap.seen)
            return &(*gaps)[i];
    g4_gap *grown = g4_array_grow(net->a, *gaps, *n, cap, sizeof *grown);
    if (grown == NULL) {
        net->failed = G4_NET_NO_MEMORY;
        return NULL;
    }
    *gaps = grown;
    gap.next = gap.behind = 0;
    grown[*n] = gap;
    return &grown[(*n)++];
}

/* May the object end here, in front of ordered member i? */
static int g4_gap_may_end(g4_objecting_net *o, const g4_gap *gap, int i)
{
    const g4_object_shape *s = o->shape;
    if (i <= o->last_required || (o->free_required & ~gap->seen) != 0 || gap->count < (o->counts ? s->min : 0))
        return 0;
    if (gap->met != (1u << s->n_some) - 1) return 0;
    return g4_need_at_none(o->c->sh, gap->need); /* what is left of it speaks of members that are not there */
}

/* The node in front of another member of a gap; the same behind the first and behind later ones. */
static int32_t g4_gap_next(g4_objecting_net *o, g4_gap *gap)
{
    if (gap->next == 0) gap->next = g4_net_node(o->c->net);
    return gap->next;
}

/* The node behind a member, with a comma or the end of the object behind it; i: the ordered member that is next. */
static int32_t g4_gap_behind(g4_objecting_net *o, g4_gap *gap, int i)
{
    g4_net *net = o->c->net;
    if (gap->behind != 0) return gap->behind;
    gap->behind = g4_net_node(net);
    g4_net_lexeme(net, gap->behind, g4_gap_next(o, gap), o->c->comma);
    if (g4_gap_may_end(o, gap, i)) g4_net_lexeme(net, gap->behind, o->to, o->c->close_object);
    return gap->behind;
}

/* A key of a call: as it is, or between control tokens where it could not be told from what is around it, or it takes
 * too long to find out whether it could. */
static void g4_schema_put_call_key(g4_schema *c, int32_t from, int32_t to, g4_re name)
{
    g4_regular *r = c->regular;
    const int within = g4_re_within(r, name, c->bare_key), is_bare = within == 1;
    const int is_quoted = !is_bare && g4_re_disjoint(r, name, c->bare_key) != 0;
    if (!is_quoted) g4_net_lexeme(c->net, from, to, is_bare ? name : g4_re_and(r, name, c->bare_key));
    if (is_bare) return;
    const int32_t inside = g4_net_node(c->net), behind = g4_net_node(c->net);
    g4_net_control(c->net, from, inside, G4_CONTROL_QUOTE);
    g4_net_lexeme(c->net, inside, behind,
                  is_quoted || within < 0 ? name : g4_re_and(r, name, g4_re_not(r, c->bare_key)));
    g4_net_control(c->net, behind, to, G4_CONTROL_QUOTE);
}

/* A key with its colon, from node to node. */
static void g4_schema_put_key(g4_schema *c, int32_t from, int32_t to, g4_re name)
{
    if (c->sh->is_call) {
        const int32_t behind = g4_net_node(c->net);
        g4_schema_put_call_key(c, from, behind, name);
        g4_net_lexeme(c->net, behind, to, c->colon);
        return;
    }
    g4_schema_put_quoted(c, from, to, name, c->colon);
}

/* Key, colon and value, from the node in front of a member to the gap `then` behind it. */
static void g4_schema_put_member(g4_objecting_net *o, int32_t from, g4_re key, int goal, g4_gap then, int i,
                                 int is_next)
{
    g4_schema *c = o->c;
    g4_gap *gap = goal != G4_GOAL_NONE && !g4_schema_stops(c) ? g4_gap_find(o, then, is_next) : NULL;
    if (gap == NULL) return;
    const int32_t value = g4_net_node(c->net);
    g4_schema_put_key(c, from, value, key);
    g4_schema_put(c, value, g4_gap_behind(o, gap, i), goal);
}

/* One more member, which may count for any of the sorts that must still be there; goals: for each set of them. */
static void g4_schema_put_sorts(g4_objecting_net *o, int32_t from, g4_re key, const int *goals, g4_gap then, int i,
                                int is_next)
{
    if (o->counts && o->is_bounded && then.count == o->top) return;
    if (o->counts && then.count < o->top) then.count++;
    for (unsigned set = 0; set < 1u << o->shape->n_some; set++) {
        g4_gap met = then;
        if ((set & then.met) != 0) continue;
        met.met |= set;
        g4_schema_put_member(o, from, key, goals[set], met, i, is_next);
    }
}

/* From the gaps in front of ordered member i to those behind it. */
static void g4_schema_put_ordered(g4_objecting_net *o, int i)
{
    const g4_member_shape *m = &o->shape->members[i];
    g4_schema *c = o->c;
    const g4_re key = g4_name_text(c->sh, m->name);
    for (int k = 0; k < o->n_gaps && !g4_schema_stops(c); k++) {
        const int32_t from = g4_gap_next(o, &o->gaps[k]);
        g4_gap there = o->gaps[k], absent = there;
        there.need = g4_need_set(c->sh, there.need, m->name, 1);
        absent.need = g4_need_set(c->sh, absent.need, m->name, 0);
        if (there.need != G4_NEED_NEVER) g4_schema_put_sorts(o, from, key, m->sorts, there, i + 1, 1);
        if (m->is_required || absent.need == G4_NEED_NEVER) continue;
        g4_gap *next = g4_gap_find(o, absent, 1);
        if (next != NULL) g4_net_empty(c->net, from, g4_gap_next(o, next));
    }
}

/* Gaps that are too many become one, or one for each number of members so far: what is left of the formula is not held,
 * and sorts of members count as there. */
static void g4_objecting_loosen(g4_objecting_net *o)
{
    const int max = o->counts ? g4_min_int(G4_SCHEMA_MAX_GAPS * (o->top + 2), G4_SCHEMA_MAX_COUNTED_GAPS + o->top)
                              : G4_SCHEMA_MAX_GAPS;
    const int n = o->n_next;
    int kept = 0;
    if (n <= max) return;
    g4_shaper_loosen(o->c->sh, o->node, "", "more than %d conditions on which members go together: not held", max);
    for (int i = 0; i < n; i++) {
        const g4_gap gap = o->next_gaps[i];
        const g4_gap plain = { .need = G4_NEED_ALWAYS, .count = gap.count, .met = (1u << o->shape->n_some) - 1 };
        g4_gap *all = g4_gap_find(o, plain, 1);
        if (all == NULL) return;
        const int32_t next = g4_gap_next(o, all);
        if (gap.next != 0 && gap.next != next) g4_net_empty(o->c->net, gap.next, next);
    }
    for (int i = 0; i < o->n_next; i++)
        if (o->next_gaps[i].need == G4_NEED_ALWAYS && o->next_gaps[i].met == (1u << o->shape->n_some) - 1)
            o->next_gaps[kept++] = o->next_gaps[i];
    o->n_next = kept;
}

/* Behind the ordered members: free ones, each once, and undeclared ones. Gaps come into being on the way. */
static void g4_schema_put_rest(g4_objecting_net *o)
{
    g4_schema *c = o->c;
    const g4_object_shape *s = o->shape;
    for (int k = 0; k < o->n_gaps && !g4_schema_stops(c); k++) {
        const int32_t from = g4_gap_next(o, &o->gaps[k]);
        for (int i = s->n_ordered; i < s->n_members; i++) {
            const g4_member_shape *m = &s->members[i];
            g4_gap then = o->gaps[k];
            if (then.seen >> (i - s->n_ordered) & 1) continue;
            then.seen |= 1u << (i - s->n_ordered);
            then.need = g4_need_set(c->sh, then.need, m->name, 1);
            if (then.need != G4_NEED_NEVER)
                g4_schema_put_sorts(o, from, g4_name_text(c->sh, m->name), m->sorts, then, s->n_ordered, 0);
        }
        for (int i = 0; i < s->n_rest; i++)
            g4_schema_put_sorts(o, from, s->rest[i].keys, s->rest[i].sorts, o->gaps[k], s->n_ordered, 0);
    }
}

/* Must members be counted, and up to which number? */
static void g4_objecting_measure(g4_objecting_net *o)
{
    const g4_object_shape *s = o->shape;
    int n_required = 0;
    o->last_required = -1;
    for (int i = 0; i < s->n_members; i++) {
        if (!s->members[i].is_required) continue;
        n_required++;
        if (i < s->n_ordered)
            o->last_required = i;
        else
            o->free_required |= 1u << (i - s->n_ordered);
    }
    o->is_bounded = s->max >= 0 && (s->max < s->n_members || s->n_rest > 0);
    o->counts = o->is_bounded || s->min > n_required;
    o->top = o->is_bounded ? s->max : s->min;
    if (!o->counts || (int64_t)o->top * (s->n_members + 1) <= G4_SCHEMA_MAX_MEMBER_PLACES) return;
    g4_shaper_loosen(o->c->sh, o->node, o->is_bounded ? "maxProperties" : "minProperties",
                     "the number of members times that of names is above %d: not held", G4_SCHEMA_MAX_MEMBER_PLACES);
    o->counts = 0;
}

/* In calls the template's order, which sorts by name. */
static void g4_schema_sort_members(g4_schema *c, g4_object_shape *s)
{
    g4_shaper *sh = c->sh;
    g4_dictsort sorted;
    g4_json *all = g4_alloc(sh->a, (size_t)s->n_members + 1, sizeof *all);
    g4_member_shape *members = g4_alloc(sh->a, (size_t)s->n_members + 1, sizeof *members);
    if (all == NULL || members == NULL) {
        c->net->failed = G4_NET_NO_MEMORY;
        s->n_members = 0;
    }
    g4_json object = { .kind = G4_JSON_OBJECT, .child = s->n_members > 0 ? all : NULL };
    for (int i = 0; i < s->n_members; i++) {
        const g4_name *name = &sh->names[s->members[i].name];
        all[i] = (g4_json) { .kind = G4_JSON_NULL, .key = name->text, .key_len = name->len };
        if (i + 1 < s->n_members) all[i].next = &all[i + 1];
        members[i] = s->members[i];
    }
    if (!g4_dictsort_open(&sorted, sh->a, &object, sh->asker.halt)) c->net->failed = G4_NET_NO_MEMORY;
    for (size_t i = 0; i < sorted.n; i++) s->members[i] = members[sorted.members[i].node - all];
    s->n_ordered = s->n_members;
    g4_dictsort_close(&sorted);
    g4_free(sh->a, all);
    g4_free(sh->a, members);
}

/* Members that may be left out are all places of one position: too many of them are taken out of their order. */
static int g4_object_is_too_wide(g4_schema *c, const g4_object_shape *s, const g4_json *node)
{
    int n = 0;
    for (int i = 0; i < s->n_ordered && n <= G4_SCHEMA_MAX_LEFT_OUT; i++) n = s->members[i].is_required ? 0 : n + 1;
    if (n <= G4_SCHEMA_MAX_LEFT_OUT) return 0;
    g4_shaper_loosen(c->sh, node, "", "more than %d members that may be left out: any object is allowed",
                     G4_SCHEMA_MAX_LEFT_OUT);
    return 1;
}

static void g4_schema_put_object(g4_schema *c, int32_t from, int32_t to, g4_object_shape *s, const g4_json *node)
{
    g4_object_shape any = { 0 };
    g4_rest_shape rest = { .keys = c->sh->any_text, .goal = G4_GOAL_ANY };
    if (g4_object_is_too_wide(c, s, node)) {
        rest.sorts[0] = G4_GOAL_ANY;
        any = (g4_object_shape) { .rest = &rest, .n_rest = 1, .need = G4_NEED_ALWAYS, .max = -1 };
        s = &any;
    }
    g4_objecting_net o = { .c = c, .shape = s, .to = to, .node = node };
    if (c->sh->is_call) g4_schema_sort_members(c, s);
    g4_objecting_measure(&o);
    g4_gap *first = g4_gap_find(&o, (g4_gap) { .need = s->need }, 0);
    if (first != NULL) {
        const int32_t open = g4_net_node(c->net);
        g4_net_lexeme(c->net, from, open, c->open_object);
        if (g4_gap_may_end(&o, first, 0)) g4_net_lexeme(c->net, open, to, c->close_object);
        g4_net_empty(c->net, open, g4_gap_next(&o, first));
    }
    for (int i = 0; i < s->n_ordered && !g4_schema_stops(c); i++) {
        g4_schema_put_ordered(&o, i);
        g4_objecting_loosen(&o);
        g4_gap *swap = o.gaps;
        const int cap = o.cap_gaps;
        o.gaps = o.next_gaps;
        o.cap_gaps = o.cap_next;
        o.n_gaps = o.n_next;
        o.next_gaps = swap;
        o.cap_next = cap;
        o.n_next = 0;
    }
    if (!g4_schema_stops(c)) g4_schema_put_rest(&o);
    g4_free(c->net->a, o.gaps);
    g4_free(c->net->a, o.next_gaps);
}

/* ---- Rules --------------------------------------------------------------------------------------- */

static void g4_schema_put_parts(g4_schema *c, int32_t from, int32_t to, int goal, int types)
{
    const g4_goal *k = c->sh->goals[goal];
    const g4_json *node = k->n > 0 ? k->claims[0].node : c->sh->root;
    if (types & G4_T_ARRAY)
        for (g4_array_shape *s = g4_shape_arrays(c->sh, goal); s != NULL && !g4_schema_stops(c); s = s->next)
            g4_schema_put_array(c, from, to, s, node);
    if (types & G4_T_OBJECT)
        for (g4_object_shape *s = g4_shape_objects(c->sh, goal); s != NULL && !g4_schema_stops(c); s = s->next)
            g4_schema_put_object(c, from, to, s, node);
}

/* The goal, unless there is too much already: then any value. */
static int g4_schema_goal_now(g4_schema *c, int goal)
{
    if (goal <= G4_GOAL_ANY || c->net->n_nodes <= G4_SCHEMA_MAX_NODES) return goal;
    g4_shaper_loosen(c->sh, c->sh->goals[goal]->claims[0].node, "",
                     "the grammar becomes too large: anything is allowed");
    return G4_GOAL_ANY;
}

/* Build the rules that were asked for, and those that these ask for. */
static void g4_schema_finish(g4_schema *c)
{
    while (c->n_todo > 0 && !g4_schema_stops(c)) {
        const int asked = c->todo[--c->n_todo], rule = c->sh->goals[asked]->rule;
        const int goal = g4_schema_goal_now(c, asked);
        const int32_t from = c->net->rules[rule].start, to = c->net->rules[rule].end;
        g4_schema_put_scalars(c, from, to, g4_goal_scalars(c->sh, goal));
        g4_schema_put_parts(c, from, to, goal, G4_T_ARRAY | G4_T_OBJECT);
    }
    if (c->sh->no_memory && !c->net->failed) c->net->failed = G4_NET_NO_MEMORY;
    if (!c->net->failed) c->net->failed = g4_regular_failed(c->regular);
    g4_net_stops_now(c->net); /* what was left out because the call was halted is never taken for done */
    g4_free(c->net->a, c->todo);
}

/* ---- Grammars of schemas and tools --------------------------------------------------------------- */

/* OpenAI's envelope around a schema: {"type": "json_schema", "json_schema": {"name", "schema", "strict"}}, or what is
 * in it. Returns the schema, or the document. */
static const g4_json *g4_schema_unwrap(const g4_json *doc, g4_schema_options *opt)
{
    const g4_json *inner = doc;
    if (g4_json_is_text(g4_json_get(doc, "type"), "json_schema") &&
        g4_json_is(g4_json_get(doc, "json_schema"), G4_JSON_OBJECT))
        inner = g4_json_get(doc, "json_schema");
    const g4_json *schema = g4_json_get(inner, "schema");
    const int is_named =
        g4_json_is(g4_json_get(inner, "name"), G4_JSON_STRING) && g4_json_get(inner, "properties") == NULL;
    if (!g4_json_is(schema, G4_JSON_OBJECT) || (inner == doc && !is_named)) return doc;
    if (g4_json_is(g4_json_get(inner, "strict"), G4_JSON_TRUE)) opt->closed = 1;
    return schema;
}

/* A schema that was too large even so: any value, or any object. */
static const g4_json g4_schema_anything = { .kind = G4_JSON_TRUE };

static void g4_schema_say_too_large(const g4_schema_options *opt, const char *what, const char *any)
{
    char text[200];
    if (opt->warn == NULL) return;
    snprintf(text, sizeof text, "%s#: too large: any %s is allowed", what, any);
    opt->warn(opt->user, text);
}

static void g4_schema_whole(g4_schema *c, const g4_json *root)
{
    const g4_claim claim = { root, 0, 0 };
    g4_schema_open(c);
    c->net->root = g4_schema_rule(c, g4_goal_of(c->sh, &claim, 1));
    g4_schema_finish(c);
}

/* One attempt at the grammar of a schema, which may be too large. */
static g4_status g4_grammar_try(g4_grammar **out, g4_arena *arena, const g4_tokenizer *t, const g4_json *root,
                                const g4_schema_options *opt, int *is_too_large, g4_halt *halt, g4_error *err)
{
    g4_grammar *g;
    g4_status st = g4_grammar_new(&g, arena->a, t, halt, err);
    *is_too_large = 0;
    *out = NULL;
    if (st != G4_OK) return st;
    g4_net *net = g4_grammar_net(g);
    g4_shaper sh;
    g4_schema c = { .net = net, .regular = net->regular, .sh = &sh, .distinct_left = G4_DISTINCT_MAX_WORK };
    if (g4_shaper_open(&sh, arena, net->regular, root, opt, 0, "schema ", halt, err))
        g4_schema_whole(&c, root);
    else
        net->failed = G4_NET_NO_MEMORY;
    g4_shaper_close(&sh);
    *is_too_large = sh.st == G4_OK && net->failed == G4_NET_TOO_LARGE;
    return g4_grammar_finish(out, g, sh.st, "schema", err);
}

g4_status g4_grammar_schema(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t, const char *schema,
                            size_t len, const g4_schema_options *opt, g4_halt *halt, g4_error *err)
{
    g4_schema_options options = { 0 };
    g4_arena arena = { .a = a };
    g4_json *doc;
    int is_too_large = 0;
    *out = NULL;
    if (opt != NULL) options = *opt;
    g4_status st = g4_json_parse_in(&doc, &arena, schema, len, "schema", halt, err);
    if (st == G4_OK && doc->kind != G4_JSON_OBJECT && doc->kind != G4_JSON_TRUE && doc->kind != G4_JSON_FALSE)
        st = g4_fail(err, G4_ERR_FORMAT, "schema #: a schema must be an object, true or false");
    if (st == G4_OK) {
        const g4_json *root = g4_schema_unwrap(doc, &options);
        st = g4_grammar_try(out, &arena, t, root, &options, &is_too_large, halt, err);
    }
    if (is_too_large && !options.strict) {
        g4_schema_say_too_large(&options, "schema ", "value");
        st = g4_grammar_try(out, &arena, t, &g4_schema_anything, &options, &is_too_large, halt, err);
    }
    g4_arena_free(&arena);
    return st;
}

g4_status g4_grammar_from_schema(g4_grammar **out, const g4_engine *e, const char *schema, size_t len,
                                 const g4_schema_options *opt, g4_error *err)
{
    g4_halt halt;
    const g4_status st = g4_grammar_check(out, e, schema, "schema", opt ? opt->limits : NULL, &halt, err);
    if (st != G4_OK) return st;
    return g4_grammar_schema(out, g4_engine_allocator(e), g4_engine_tokenizer(e), schema,
                             len > 0 ? len : strlen(schema), opt, &halt, err);
}

/* The parameters that a tool declares, as OpenAI, or MCP, or others name them; NULL: none. */
static const g4_json *g4_tool_parameters(const g4_json *function)
{
    static const char *const names[] = { "parameters", "inputSchema", "input_schema" };
    const g4_json *found = NULL;
    for (int i = 0; i < 3 && !g4_json_is(found, G4_JSON_OBJECT); i++) found = g4_json_get(function, names[i]);
    return g4_json_is(found, G4_JSON_OBJECT) && found->child != NULL ? found : NULL;
}

/* call:NAME{...} of one tool, in the root rule. A tool without parameters takes none; with them, an object whatever
 * else is said. */
static g4_status g4_tool_add(g4_net *net, g4_arena *arena, const g4_json *function, const g4_json *parameters,
                             g4_schema_options opt, const char *what, g4_halt *halt, g4_error *err)
{
    const g4_json *name = g4_json_get(function, "name");
    const int32_t end = net->rules[net->root].end, pos = g4_net_node(net), open = g4_net_node(net);
    g4_net_empty(net, net->rules[net->root].start, pos);
    g4_re head = g4_re_text(net->regular, name->text, name->text_len);
    head = g4_re_concat(net->regular, g4_re_text(net->regular, "call:", 5), head);
    g4_net_lexeme(net, pos, open, head);
    if (parameters == NULL) {
        g4_net_lexeme(net, open, end, g4_re_text(net->regular, "{}", 2));
        return G4_OK;
    }
    if (g4_json_is(g4_json_get(function, "strict"), G4_JSON_TRUE)) opt.closed = 1;
    g4_shaper sh;
    g4_schema c = { .net = net, .regular = net->regular, .sh = &sh, .distinct_left = G4_DISTINCT_MAX_WORK };
    if (g4_shaper_open(&sh, arena, net->regular, parameters, &opt, 1, what, halt, err)) {
        const g4_claim claim = { parameters, 0, 0 };
        int goal = g4_goal_of(&sh, &claim, 1);
        if (!g4_claim_may(&sh, claim, G4_T_OBJECT)) {
            g4_shaper_loosen(&sh, parameters, "type", "must be object: any object is allowed");
            goal = G4_GOAL_ANY;
        }
        g4_schema_open(&c);
        g4_schema_put_parts(&c, open, end, goal, G4_T_OBJECT);
        g4_schema_finish(&c);
    } else {
        net->failed = G4_NET_NO_MEMORY;
    }
    g4_shaper_close(&sh);
    return sh.st;
}

/* Some tools with any object for their arguments: those that were too large in an earlier attempt. */
typedef struct {
    uint8_t *is_loose; /* (tools) */
    int n_said;        /* tools of which the warnings have been given */
    int too_large;     /* the first that was too large this time; -1: none */
} g4_tools_attempt;

static g4_status g4_tools_add(g4_net *net, g4_arena *arena, const g4_json *tools, const char *only,
                              const g4_schema_options *opt, g4_tools_attempt *attempt, g4_halt *halt, g4_error *err)
{
    const g4_json object = { .kind = G4_JSON_OBJECT };
    int i = 0, n = 0;
    net->root = g4_net_rule(net, NULL, 0);
    for (const g4_json *tool = tools->child; tool != NULL && !g4_net_stops_now(net); tool = tool->next, i++) {
        g4_schema_options options = *opt;
        const g4_json *function = g4_json_get(tool, "function");
        if (function == NULL) function = tool;
        const g4_json *name = g4_json_get(function, "name");
        char what[80];
        if (!g4_json_is(name, G4_JSON_STRING))
            return g4_fail(err, G4_ERR_ARGUMENT, "tools[%d]: a tool must have a function with a name", i);
        if (only != NULL && !g4_json_is_text(name, only)) continue;
        snprintf(what, sizeof what, "tools[%d].function.parameters ", i);
        if (i < attempt->n_said) options.warn = NULL;
        if (attempt->is_loose[i] && i >= attempt->n_said) g4_schema_say_too_large(opt, what, "object");
        const g4_status st =
            g4_tool_add(net, arena, function, attempt->is_loose[i] ? &object : g4_tool_parameters(function), options,
                        what, halt, err);
        if (st != G4_OK) return st;
        if (net->failed == G4_NET_TOO_LARGE) attempt->too_large = i;
        n++;
    }
    if (n > 0 || net->failed) return G4_OK;
    return only != NULL ? g4_fail(err, G4_ERR_ARGUMENT, "there is no tool named %.80s", only)
                        : g4_fail(err, G4_ERR_ARGUMENT, "no tools are declared");
}

static g4_status g4_tools_try(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t, const g4_json *tools,
                              const char *only, const g4_schema_options *opt, g4_tools_attempt *attempt, g4_halt *halt,
                              g4_error *err)
{
    g4_arena arena = { .a = a };
    g4_grammar *g;
    attempt->too_large = -1;
    g4_status st = g4_grammar_new(&g, a, t, halt, err);
    if (st != G4_OK) return st;
    st = g4_tools_add(g4_grammar_net(g), &arena, tools, only, opt, attempt, halt, err);
    g4_arena_free(&arena);
    return g4_grammar_finish(out, g, st, "tools", err);
}

/* A tool that is too large is made anew, with the others, for any arguments: at most so many times. */
g4_status g4_grammar_tools(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t, const g4_json *tools,
                           const char *only, const g4_schema_options *opt, g4_halt *halt, g4_error *err)
{
    const g4_schema_options options = opt != NULL ? *opt : (g4_schema_options) { 0 };
    int n = 0;
    *out = NULL;
    if (!g4_json_is(tools, G4_JSON_ARRAY)) return g4_fail(err, G4_ERR_ARGUMENT, "tools must be a list of objects");
    for (const g4_json *tool = tools->child; tool != NULL; tool = tool->next) n++;
    g4_tools_attempt attempt = { .is_loose = g4_alloc(a, (size_t)n + 1, 1) };
    if (attempt.is_loose == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for the tools");
    memset(attempt.is_loose, 0, (size_t)n + 1);
    g4_status st = g4_tools_try(out, a, t, tools, only, &options, &attempt, halt, err);
    for (int tries = 1; attempt.too_large >= 0 && !options.strict && tries <= G4_SCHEMA_MAX_TRIES; tries++) {
        attempt.n_said = attempt.too_large;
        attempt.is_loose[attempt.too_large] = 1;
        for (int i = attempt.too_large; i < n && tries == G4_SCHEMA_MAX_TRIES; i++) attempt.is_loose[i] = 1;
        st = g4_tools_try(out, a, t, tools, only, &options, &attempt, halt, err);
    }
    g4_free(a, attempt.is_loose);
    return st;
}

g4_status g4_grammar_from_tools(g4_grammar **out, const g4_engine *e, const char *tools, size_t len, const char *only,
                                const g4_schema_options *opt, g4_error *err)
{
    g4_halt halt;
    g4_json *doc;
    g4_status st = g4_grammar_check(out, e, tools, "tools", opt ? opt->limits : NULL, &halt, err);
    if (st != G4_OK) return st;
    g4_arena arena = { .a = g4_engine_allocator(e) };
    st = g4_openai_read_tools(&doc, &arena, tools, len, &halt, err);
    if (st == G4_OK) st = g4_grammar_tools(out, arena.a, g4_engine_tokenizer(e), doc, only, opt, &halt, err);
    g4_arena_free(&arena);
    return st;
}
