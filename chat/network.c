/* network.c - what text may be, as a recursive transition network: rules of nodes, joined by edges that read a text of
 * a regular language or a control token, read nothing, or call a rule and go on at `to`. The grammar notation and
 * schemas build one. A network that is finished has no dead ends; no rule but the root's start may be empty, and none
 * calls itself before it reads something: rules that do are written anew, so that they loop instead. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <string.h>

#define G4_MAX_NODES 400000

void g4_net_free(g4_net *net)
{
    g4_regular_close(net->regular);
    g4_free(net->a, net->nodes);
    g4_free(net->a, net->edges);
    g4_free(net->a, net->rules);
    g4_free(net->a, net->names);
    g4_free(net->a, net->follow);
    g4_free(net->a, net->follow_sets);
    *net = (g4_net) { .a = net->a };
}

int g4_net_stops(g4_net *net)
{
    if (!net->failed && g4_ask(&net->asker)) net->failed = G4_NET_HALTED;
    return net->failed != G4_NET_FINE;
}

int g4_net_stops_now(g4_net *net)
{
    if (!net->failed && g4_halted(net->asker.halt)) net->failed = G4_NET_HALTED;
    return net->failed != G4_NET_FINE;
}

/* ---- Nodes, edges, rules ------------------------------------------------------------------------- */

int32_t g4_net_node(g4_net *net)
{
    g4_node *nodes = NULL;
    if (net->failed) return 0;
    if (net->n_nodes < G4_MAX_NODES)
        nodes = g4_array_grow(net->a, net->nodes, net->n_nodes, &net->cap_nodes, sizeof *nodes);
    if (nodes == NULL) {
        net->failed = net->n_nodes < G4_MAX_NODES ? G4_NET_NO_MEMORY : G4_NET_TOO_LARGE;
        return 0;
    }
    net->nodes = nodes;
    nodes[net->n_nodes] = (g4_node) { .first = -1 };
    return net->n_nodes++;
}

static void g4_net_edge(g4_net *net, int32_t from, g4_edge edge)
{
    if (g4_net_stops(net)) return;
    g4_edge *edges = g4_array_grow(net->a, net->edges, net->n_edges, &net->cap_edges, sizeof *edges);
    if (edges == NULL) {
        net->failed = G4_NET_NO_MEMORY;
        return;
    }
    net->edges = edges;
    edge.from = from;
    edge.next = net->nodes[from].first;
    edges[net->n_edges] = edge;
    net->nodes[from].first = net->n_edges++;
}

void g4_net_empty(g4_net *net, int32_t from, int32_t to)
{
    g4_net_edge(net, from, (g4_edge) { .to = to, .kind = G4_EDGE_EMPTY });
}

void g4_net_lexeme(g4_net *net, int32_t from, int32_t to, g4_re re)
{
    if (re == G4_RE_EMPTY)
        g4_net_empty(net, from, to);
    else if (re != G4_RE_NONE)
        g4_net_edge(net, from, (g4_edge) { .to = to, .kind = G4_EDGE_LEXEME, .operand = re });
}

void g4_net_item(g4_net *net, int32_t from, int32_t to, g4_re before, g4_re item)
{
    if (before != G4_RE_NONE && item != G4_RE_NONE)
        g4_net_edge(net, from, (g4_edge) { .to = to, .kind = G4_EDGE_ITEM, .operand = item, .before = before });
}

void g4_net_call(g4_net *net, int32_t from, int32_t to, int rule)
{
    g4_net_edge(net, from, (g4_edge) { .to = to, .kind = G4_EDGE_CALL, .operand = rule });
}

void g4_net_control(g4_net *net, int32_t from, int32_t to, g4_control control)
{
    g4_net_edge(net, from, (g4_edge) { .to = to, .kind = G4_EDGE_CONTROL, .operand = (int32_t)control });
}

int g4_net_rule(g4_net *net, const char *name, size_t name_len)
{
    g4_rule *rules = g4_array_grow(net->a, net->rules, net->n_rules, &net->cap_rules, sizeof *rules);
    if (rules == NULL) {
        net->failed = G4_NET_NO_MEMORY;
        return 0;
    }
    net->rules = rules;
    const int32_t start = g4_net_node(net), end = g4_net_node(net);
    rules[net->n_rules] = (g4_rule) { .start = start, .end = end, .name = name, .name_len = name_len };
    if (!net->failed) net->nodes[end].is_end = 1;
    return net->n_rules++;
}

int32_t g4_net_text(g4_net *net, int32_t from, const char *s, size_t n)
{
    if (n == 0) return from;
    const int32_t to = g4_net_node(net);
    g4_net_lexeme(net, from, to, g4_re_text(net->regular, s, n));
    return to;
}

int32_t g4_net_str(g4_net *net, int32_t from, const char *s) { return g4_net_text(net, from, s, strlen(s)); }

/* ---- What nodes can reach ------------------------------------------------------------------------ */

typedef struct { /* the network the other way round, and work of searches */
    g4_net *net;
    int32_t *into;      /* (n_nodes) the first edge that leads to a node, -1: none */
    int32_t *next_into; /* (n_edges) the next one */
    int32_t *calls;     /* (n_rules) the first call of a rule */
    int32_t *next_call; /* (n_edges) */
    int32_t *rule_of;   /* (n_nodes) the rule that starts there, -1: none */
    int32_t *queue;     /* (n_nodes) */
    uint8_t *is_set;    /* (n_nodes) what a search is for */
    int n_nodes;        /* when it was opened */
    g4_blocks blocks;
} g4_reverse;

/* Returns 0 when out of memory; free its blocks in any case. */
static int g4_reverse_open(g4_reverse *v, g4_net *net)
{
    const size_t n_nodes = (size_t)net->n_nodes + 1, n_edges = (size_t)net->n_edges + 1;
    const size_t n_rules = (size_t)net->n_rules + 1;
    *v = (g4_reverse) { .net = net, .n_nodes = net->n_nodes, .blocks = { .a = net->a } };
    v->into = g4_blocks_add(&v->blocks, n_nodes, 1, sizeof *v->into);
    v->next_into = g4_blocks_add(&v->blocks, n_edges, 1, sizeof *v->next_into);
    v->calls = g4_blocks_add(&v->blocks, n_rules, 1, sizeof *v->calls);
    v->next_call = g4_blocks_add(&v->blocks, n_edges, 1, sizeof *v->next_call);
    v->rule_of = g4_blocks_add(&v->blocks, n_nodes, 1, sizeof *v->rule_of);
    v->queue = g4_blocks_add(&v->blocks, n_nodes, 1, sizeof *v->queue);
    v->is_set = g4_blocks_add(&v->blocks, n_nodes, 1, 1);
    if (v->blocks.failed) {
        net->failed = G4_NET_NO_MEMORY;
        return 0;
    }
    for (size_t i = 0; i < n_nodes; i++) v->into[i] = v->rule_of[i] = -1;
    for (int r = 0; r < net->n_rules; r++) {
        v->calls[r] = -1;
        v->rule_of[net->rules[r].start] = r;
    }
    for (int u = 0; u < net->n_nodes; u++)
        for (int32_t e = net->nodes[u].first; e >= 0; e = net->edges[e].next) {
            const g4_edge *edge = &net->edges[e];
            v->next_into[e] = v->into[edge->to];
            v->into[edge->to] = e;
            if (edge->kind != G4_EDGE_CALL) continue;
            v->next_call[e] = v->calls[edge->operand];
            v->calls[edge->operand] = e;
        }
    return 1;
}

typedef enum { G4_SPREAD_LIVE, G4_SPREAD_NULLABLE } g4_spread;

/* Does a path go on backwards over this edge, whose end is in? */
static int g4_spread_passes(const g4_reverse *v, const g4_edge *edge, g4_spread what)
{
    switch ((g4_edge_kind)edge->kind) {
    case G4_EDGE_CALL: return v->is_set[v->net->rules[edge->operand].start];
    case G4_EDGE_LEXEME: return what == G4_SPREAD_LIVE || g4_re_accepts(v->net->regular, edge->operand);
    case G4_EDGE_ITEM:
    case G4_EDGE_CONTROL: return what == G4_SPREAD_LIVE;
    case G4_EDGE_EMPTY: break;
    }
    return 1;
}

/* Set is_set of all nodes from which their rule's end is reached: at all, or without reading. */
static void g4_net_spread(g4_reverse *v, g4_spread what)
{
    const g4_net *net = v->net;
    int n = 0;
    memset(v->is_set, 0, (size_t)net->n_nodes);
    for (int i = 0; i < net->n_nodes; i++) {
        if (!net->nodes[i].is_end) continue;
        v->is_set[i] = 1;
        v->queue[n++] = i;
    }
    for (int i = 0; i < n && !g4_net_stops(v->net); i++) {
        const int32_t node = v->queue[i];
        for (int32_t e = v->into[node]; e >= 0; e = v->next_into[e]) {
            const g4_edge *edge = &net->edges[e];
            if (v->is_set[edge->from] || !g4_spread_passes(v, edge, what)) continue;
            v->is_set[edge->from] = 1;
            v->queue[n++] = edge->from;
        }
        for (int32_t e = v->rule_of[node] < 0 ? -1 : v->calls[v->rule_of[node]]; e >= 0; e = v->next_call[e]) {
            const g4_edge *edge = &net->edges[e];
            if (v->is_set[edge->from] || !v->is_set[edge->to]) continue;
            v->is_set[edge->from] = 1;
            v->queue[n++] = edge->from;
        }
    }
}

/* Edges that lead nowhere would let the model into a dead end. */
static void g4_net_remove_dead(g4_net *net)
{
    g4_reverse v;
    if (g4_reverse_open(&v, net)) {
        g4_net_spread(&v, G4_SPREAD_LIVE);
        for (int i = 0; i < net->n_nodes; i++) {
            int32_t *link = &net->nodes[i].first;
            while (*link >= 0) {
                const g4_edge *edge = &net->edges[*link];
                const int is_live =
                    v.is_set[edge->to] && (edge->kind != G4_EDGE_CALL || v.is_set[net->rules[edge->operand].start]);
                if (is_live)
                    link = &net->edges[*link].next;
                else
                    *link = edge->next;
            }
        }
        for (int r = 0; r < net->n_rules; r++) net->rules[r].is_live = v.is_set[net->rules[r].start];
    }
    g4_blocks_free(&v.blocks);
}

/* ---- Rules that read something ------------------------------------------------------------------- */

typedef struct {    /* nodes that are reached without reading */
    int32_t *nodes; /* (cap) */
    uint8_t *is_in; /* (cap) of these */
    int n, cap;     /* cap: nodes of the network when it was opened */
} g4_front;

/* Among the blocks of its owner. Returns 0 when they are out of memory. */
static int g4_front_open(g4_front *f, g4_net *net, g4_blocks *blocks)
{
    const size_t n_nodes = (size_t)net->n_nodes + 1;
    *f = (g4_front) { .cap = net->n_nodes };
    f->nodes = g4_blocks_add(blocks, n_nodes, 1, sizeof *f->nodes);
    f->is_in = g4_blocks_add(blocks, n_nodes, 1, 1);
    if (blocks->failed) net->failed = G4_NET_NO_MEMORY;
    return !blocks->failed;
}

static void g4_front_add(g4_front *f, int32_t node)
{
    if (f->is_in[node]) return;
    f->is_in[node] = 1;
    f->nodes[f->n++] = node;
}

/* The nodes that empty edges lead to from the start of a rule. */
static void g4_front_find(g4_front *f, g4_net *net, int rule)
{
    for (int i = 0; i < f->n; i++) f->is_in[f->nodes[i]] = 0;
    f->n = 0;
    g4_front_add(f, net->rules[rule].start);
    for (int i = 0; i < f->n && !g4_net_stops(net); i++)
        for (int32_t e = net->nodes[f->nodes[i]].first; e >= 0; e = net->edges[e].next)
            if (net->edges[e].kind == G4_EDGE_EMPTY) g4_front_add(f, net->edges[e].to);
}

/* What may be empty gets an empty edge beside it, and from then on stands for its other texts only. Returns whether the
 * root may be empty. */
static int g4_net_part_empty(g4_net *net)
{
    g4_reverse v;
    g4_front f = { 0 };
    int is_empty = 0;
    if (g4_reverse_open(&v, net) && g4_front_open(&f, net, &v.blocks)) {
        g4_net_spread(&v, G4_SPREAD_NULLABLE);
        is_empty = v.is_set[net->rules[net->root].start];
        for (int u = 0; u < v.n_nodes; u++)
            for (int32_t e = net->nodes[u].first; e >= 0 && !net->failed; e = net->edges[e].next) {
                const g4_edge edge = net->edges[e];
                if ((edge.kind == G4_EDGE_CALL && v.is_set[net->rules[edge.operand].start]) ||
                    (edge.kind == G4_EDGE_LEXEME && g4_re_accepts(net->regular, edge.operand)))
                    g4_net_empty(net, edge.from, edge.to);
            }
        for (int r = 0; r < net->n_rules && !net->failed; r++) {
            if (!v.is_set[net->rules[r].start]) continue;
            g4_front_find(&f, net, r);
            const int32_t start = g4_net_node(net);
            for (int i = 0; i < f.n && !net->failed; i++)
                for (int32_t e = net->nodes[f.nodes[i]].first; e >= 0; e = net->edges[e].next)
                    if (net->edges[e].kind != G4_EDGE_EMPTY) g4_net_edge(net, start, net->edges[e]);
            net->rules[r].start = start;
        }
    }
    g4_blocks_free(&v.blocks);
    return is_empty;
}

/* ---- Left recursion ------------------------------------------------------------------------------ *
 *
 * A rule A that begins with itself, A ::= A x | y, is y x*: behind its end it may go on where A stood. With several
 * rules that begin with each other, a text of A begins with the beginning of one of them that is no such call; behind
 * the end of B it goes on wherever B stood at the beginning of one of them, and behind the end of A it may end. Each of
 * them gets a copy of all their nodes for that. */

typedef struct {
    g4_net *net;
    g4_front front;
    int32_t *path, *group; /* (n_rules) rules that are being looked into; those that begin with each other */
    int32_t *order, *low;  /* (n_rules) Tarjan's numbers; 0: not seen */
    uint8_t *is_open;      /* (n_rules) on the path, not in a group yet */
    int32_t *edge;         /* (n_rules) of the front that is looked at next */
    int32_t *copy;         /* (n_nodes) of a node, -1: none */
    int32_t *work;         /* (n_nodes) */
    int32_t *first_call;   /* (n_rules + 1) into `called` */
    int32_t *open_calls;   /* (n_rules) of the search, each called by the one before it */
    int32_t *called;       /* rules that a rule begins with */
    int n_called, cap_called;
    g4_blocks blocks; /* all but `called` */
} g4_recursion;

static void g4_recursion_close(g4_recursion *k)
{
    g4_free(k->net->a, k->called);
    g4_blocks_free(&k->blocks);
}

static int g4_recursion_open(g4_recursion *k, g4_net *net)
{
    const size_t n_rules = (size_t)net->n_rules + 1, n_nodes = (size_t)net->n_nodes + 1;
    *k = (g4_recursion) { .net = net, .blocks = { .a = net->a } };
    k->path = g4_blocks_add(&k->blocks, n_rules, 1, sizeof *k->path);
    k->group = g4_blocks_add(&k->blocks, n_rules, 1, sizeof *k->group);
    k->order = g4_blocks_add(&k->blocks, n_rules, 1, sizeof *k->order);
    k->low = g4_blocks_add(&k->blocks, n_rules, 1, sizeof *k->low);
    k->is_open = g4_blocks_add(&k->blocks, n_rules, 1, 1);
    k->edge = g4_blocks_add(&k->blocks, n_rules, 1, sizeof *k->edge);
    k->copy = g4_blocks_add(&k->blocks, n_nodes, 1, sizeof *k->copy);
    k->work = g4_blocks_add(&k->blocks, n_nodes, 1, sizeof *k->work);
    k->first_call = g4_blocks_add(&k->blocks, n_rules, 1, sizeof *k->first_call);
    k->open_calls = g4_blocks_add(&k->blocks, n_rules, 1, sizeof *k->open_calls);
    return g4_front_open(&k->front, net, &k->blocks);
}

/* Which rules each rule begins with. */
static void g4_recursion_find_calls(g4_recursion *k)
{
    g4_net *net = k->net;
    for (int r = 0; r < net->n_rules && !g4_net_stops(net); r++) {
        k->first_call[r] = k->n_called;
        g4_front_find(&k->front, net, r);
        for (int i = 0; i < k->front.n; i++)
            for (int32_t e = net->nodes[k->front.nodes[i]].first; e >= 0; e = net->edges[e].next) {
                if (net->edges[e].kind != G4_EDGE_CALL) continue;
                int32_t *called = g4_array_grow(net->a, k->called, k->n_called, &k->cap_called, sizeof *called);
                if (called == NULL) {
                    net->failed = G4_NET_NO_MEMORY;
                    return;
                }
                k->called = called;
                called[k->n_called++] = net->edges[e].operand;
            }
    }
    k->first_call[net->n_rules] = k->n_called;
}

/* Copies of all nodes of a rule. */
static void g4_recursion_copy_nodes(g4_recursion *k, int rule, int *n_work)
{
    g4_net *net = k->net;
    const int first = *n_work;
    k->copy[net->rules[rule].start] = g4_net_node(net);
    k->work[(*n_work)++] = net->rules[rule].start;
    if (k->copy[net->rules[rule].end] < 0) {
        k->copy[net->rules[rule].end] = g4_net_node(net);
        k->work[(*n_work)++] = net->rules[rule].end;
    }
    for (int i = first; i < *n_work && !g4_net_stops(net); i++)
        for (int32_t e = net->nodes[k->work[i]].first; e >= 0; e = net->edges[e].next) {
            const int32_t to = net->edges[e].to;
            if (k->copy[to] >= 0) continue;
            k->copy[to] = g4_net_node(net);
            k->work[(*n_work)++] = to;
        }
}

/* Is this rule one of the group? */
static int g4_is_in_group(const g4_recursion *k, int n_group, int32_t rule)
{
    for (int i = 0; i < n_group; i++)
        if (k->group[i] == rule) return 1;
    return 0;
}

/* Begin a rule of the group anew: *start and *end get what stands for it from then on. */
static void g4_recursion_rewrite(g4_recursion *k, int n_group, int rule, int32_t *start, int32_t *end)
{
    g4_net *net = k->net;
    int n_work = 0;
    *start = g4_net_node(net);
    *end = g4_net_node(net);
    for (int i = 0; i < n_group && !net->failed; i++) g4_recursion_copy_nodes(k, k->group[i], &n_work);
    for (int i = 0; i < n_work && !net->failed; i++)
        for (int32_t e = net->nodes[k->work[i]].first; e >= 0 && !net->failed; e = net->edges[e].next) {
            g4_edge edge = net->edges[e];
            edge.to = k->copy[edge.to];
            g4_net_edge(net, k->copy[k->work[i]], edge);
        }
    for (int i = 0; i < n_group && !net->failed; i++) {
        g4_front_find(&k->front, net, k->group[i]);
        for (int j = 0; j < k->front.n; j++)
            for (int32_t e = net->nodes[k->front.nodes[j]].first; e >= 0 && !net->failed; e = net->edges[e].next) {
                g4_edge edge = net->edges[e];
                edge.to = k->copy[edge.to];
                if (edge.kind == G4_EDGE_CALL && g4_is_in_group(k, n_group, edge.operand))
                    g4_net_empty(net, k->copy[net->rules[edge.operand].end], edge.to);
                else if (edge.kind != G4_EDGE_EMPTY)
                    g4_net_edge(net, *start, edge);
            }
    }
    g4_net_empty(net, k->copy[net->rules[rule].end], *end);
    for (int i = 0; i < n_work; i++) k->copy[k->work[i]] = -1;
}

/* The rules of a group begin with each other: all get new nodes. */
static void g4_recursion_rewrite_group(g4_recursion *k, int n_group)
{
    g4_net *net = k->net;
    int32_t *start = k->order, *end = k->low; /* of rules whose numbers nobody needs any more */
    for (int i = 0; i < n_group && !net->failed; i++)
        g4_recursion_rewrite(k, n_group, k->group[i], &start[k->group[i]], &end[k->group[i]]);
    for (int i = 0; i < n_group && !net->failed; i++) {
        g4_rule *rule = &net->rules[k->group[i]];
        net->nodes[rule->end].is_end = 0;
        net->nodes[end[k->group[i]]].is_end = 1;
        rule->start = start[k->group[i]];
        rule->end = end[k->group[i]];
    }
}

/* Does a rule begin with itself? */
static int g4_recursion_is_direct(const g4_recursion *k, int rule)
{
    for (int i = k->first_call[rule]; i < k->first_call[rule + 1]; i++)
        if (k->called[i] == rule) return 1;
    return 0;
}

/* Tarjan's strongly connected components of "begins with", without recursion. */
static void g4_recursion_search(g4_recursion *k, int root, int *n_seen, int *n_path)
{
    int32_t *calls = k->open_calls;
    int depth = 0;
    calls[depth++] = root;
    k->order[root] = k->low[root] = ++*n_seen;
    k->edge[root] = k->first_call[root];
    k->is_open[root] = 1;
    k->path[(*n_path)++] = root;
    while (depth > 0 && !g4_net_stops(k->net)) {
        const int32_t rule = calls[depth - 1];
        if (k->edge[rule] < k->first_call[rule + 1]) {
            const int32_t called = k->called[k->edge[rule]++];
            if (k->order[called] == 0) {
                calls[depth++] = called;
                k->order[called] = k->low[called] = ++*n_seen;
                k->edge[called] = k->first_call[called];
                k->is_open[called] = 1;
                k->path[(*n_path)++] = called;
            } else if (k->is_open[called]) {
                k->low[rule] = g4_min_int(k->low[rule], k->order[called]);
            }
            continue;
        }
        depth--;
        if (depth > 0) k->low[calls[depth - 1]] = g4_min_int(k->low[calls[depth - 1]], k->low[rule]);
        if (k->low[rule] != k->order[rule]) continue;
        int n_group = 0;
        do {
            k->group[n_group] = k->path[--*n_path];
            k->is_open[k->group[n_group]] = 0;
        } while (k->group[n_group++] != rule);
        if (n_group > 1 || g4_recursion_is_direct(k, rule)) g4_recursion_rewrite_group(k, n_group);
    }
}

static void g4_net_rewrite_recursion(g4_net *net)
{
    g4_recursion k;
    int n_seen = 0, n_path = 0;
    if (g4_recursion_open(&k, net)) {
        for (int i = 0; i < k.front.cap; i++) k.copy[i] = -1;
        if (!net->failed) g4_recursion_find_calls(&k);
        for (int r = 0; r < net->n_rules && !net->failed; r++)
            if (k.order[r] == 0) g4_recursion_search(&k, r, &n_seen, &n_path);
    }
    g4_recursion_close(&k);
}

/* ---- What may come next -------------------------------------------------------------------------- */

typedef struct {
    g4_reverse reverse;
    uint32_t (*bytes)[8]; /* (n_nodes) sets */
    uint8_t *is_queued;   /* (n_nodes) */
    int n;                /* in the queue, which is a ring of n_nodes */
    int32_t first;
} g4_follow;

static void g4_follow_push(g4_follow *f, int32_t node)
{
    const int32_t n_nodes = f->reverse.net->n_nodes;
    if (f->is_queued[node]) return;
    f->is_queued[node] = 1;
    f->reverse.queue[(f->first + f->n++) % n_nodes] = node;
}

/* What may come at `from` may come at `to`. */
static void g4_follow_add(g4_follow *f, int32_t to, const uint32_t bytes[8])
{
    uint32_t is_new = 0;
    for (int i = 0; i < 8; i++) {
        is_new |= bytes[i] & ~f->bytes[to][i];
        f->bytes[to][i] |= bytes[i];
    }
    if (is_new != 0) g4_follow_push(f, to);
}

/* The bytes that an expression may begin with. */
static void g4_re_first(g4_regular *r, g4_re re, uint32_t bytes[8])
{
    const uint32_t *set;
    g4_re rest;
    if (g4_re_is_byte(r, re, &set, &rest)) {
        memcpy(bytes, set, 8 * sizeof *bytes);
        return;
    }
    const g4_re_view v = g4_re_steps_of(r, re);
    memset(bytes, 0, 8 * sizeof *bytes);
    for (int b = 0; b < 256; b++)
        if (v.to[v.class_of[b]] != G4_RE_NONE) bytes[b / 32] |= 1u << (b % 32);
}

/* For each node the bytes that may come next there, or behind the rule that ends there, whoever called it. */
static void g4_follow_find(g4_follow *f)
{
    g4_net *net = f->reverse.net;
    const g4_reverse *v = &f->reverse;
    for (int u = 0; u < net->n_nodes; u++)
        for (int32_t e = net->nodes[u].first; e >= 0 && !g4_net_stops(net); e = net->edges[e].next) {
            const g4_edge edge = net->edges[e];
            const int has_before = edge.kind == G4_EDGE_ITEM;
            uint32_t bytes[8];
            if (edge.kind != G4_EDGE_LEXEME && !has_before) continue;
            g4_re_first(net->regular, has_before ? edge.before : edge.operand, bytes);
            g4_follow_add(f, u, bytes);
            if (!has_before || !g4_re_accepts(net->regular, edge.before)) continue;
            g4_re_first(net->regular, edge.operand, bytes);
            g4_follow_add(f, u, bytes);
        }
    while (f->n > 0 && !g4_net_stops(net)) {
        const int32_t node = v->queue[f->first];
        f->first = (f->first + 1) % net->n_nodes;
        f->n--;
        f->is_queued[node] = 0;
        for (int32_t e = v->into[node]; e >= 0; e = v->next_into[e]) {
            const g4_edge *edge = &net->edges[e];
            if (edge->kind == G4_EDGE_EMPTY) g4_follow_add(f, edge->from, f->bytes[node]);
            if (edge->kind == G4_EDGE_CALL) g4_follow_add(f, net->rules[edge->operand].end, f->bytes[node]);
        }
        for (int32_t e = v->rule_of[node] < 0 ? -1 : v->calls[v->rule_of[node]]; e >= 0; e = v->next_call[e])
            g4_follow_add(f, net->edges[e].from, f->bytes[node]);
    }
}

/* Number the sets of bytes, equal ones alike. */
static void g4_follow_number(g4_follow *f)
{
    g4_net *net = f->reverse.net;
    int cap = 0;
    int32_t table[256];
    memset(table, -1, sizeof table);
    net->follow = g4_alloc(net->a, (size_t)net->n_nodes + 1, sizeof *net->follow);
    if (net->follow == NULL) net->failed = G4_NET_NO_MEMORY;
    for (int u = 0; u < net->n_nodes && !g4_net_stops(net); u++) {
        uint32_t h = 0;
        for (int i = 0; i < 8; i++) h = (h ^ f->bytes[u][i]) * 0x9e3779b1u;
        int32_t k = table[h >> 24];
        while (k >= 0 && memcmp(net->follow_sets[k].bytes, f->bytes[u], sizeof f->bytes[u]) != 0)
            k = net->follow_sets[k].next;
        if (k < 0) {
            g4_follow_set *sets = g4_array_grow(net->a, net->follow_sets, net->n_follow_sets, &cap, sizeof *sets);
            if (sets == NULL) {
                net->failed = G4_NET_NO_MEMORY;
                return;
            }
            net->follow_sets = sets;
            k = net->n_follow_sets++;
            memcpy(sets[k].bytes, f->bytes[u], sizeof f->bytes[u]);
            sets[k].next = table[h >> 24];
            table[h >> 24] = k;
        }
        net->follow[u] = k;
    }
}

static void g4_net_find_follow(g4_net *net)
{
    g4_follow f = { .n = 0 };
    if (g4_reverse_open(&f.reverse, net)) {
        f.bytes = g4_blocks_add(&f.reverse.blocks, (size_t)net->n_nodes + 1, 1, sizeof *f.bytes);
        f.is_queued = g4_blocks_add(&f.reverse.blocks, (size_t)net->n_nodes + 1, 1, 1);
        if (f.reverse.blocks.failed) net->failed = G4_NET_NO_MEMORY;
        if (!net->failed) g4_follow_find(&f);
        if (!net->failed) g4_follow_number(&f);
    }
    g4_blocks_free(&f.reverse.blocks);
}

/* ---- Finishing ----------------------------------------------------------------------------------- */

/* Names of rules point into the caller's text: keep them. */
static void g4_net_keep_names(g4_net *net)
{
    size_t len = 0;
    for (int r = 0; r < net->n_rules; r++) len += net->rules[r].name_len;
    net->names = g4_alloc(net->a, len + 1, 1);
    if (net->names == NULL) net->failed = G4_NET_NO_MEMORY;
    len = 0;
    for (int r = 0; r < net->n_rules; r++) {
        g4_rule *rule = &net->rules[r];
        if (rule->name != NULL && net->names != NULL) memcpy(net->names + len, rule->name, rule->name_len);
        rule->name = rule->name != NULL && net->names != NULL ? net->names + len : NULL;
        len += rule->name_len;
    }
}

/* Say of each node which rule it is of. */
static void g4_net_number_nodes(g4_net *net)
{
    int32_t *queue = g4_alloc(net->a, (size_t)net->n_nodes + 1, sizeof *queue);
    if (queue == NULL) net->failed = G4_NET_NO_MEMORY;
    for (int i = 0; i < net->n_nodes; i++) net->nodes[i].rule = -1;
    for (int r = -1; r < net->n_rules && !net->failed; r++) {
        int n = 0;
        queue[n++] = r < 0 ? net->start : net->rules[r].start;
        net->nodes[queue[0]].rule = r < 0 ? net->root : r;
        for (int i = 0; i < n && !g4_net_stops(net); i++)
            for (int32_t e = net->nodes[queue[i]].first; e >= 0; e = net->edges[e].next) {
                const int32_t to = net->edges[e].to;
                if (net->edges[e].kind == G4_EDGE_ITEM) net->rules[net->nodes[queue[i]].rule].has_items = 1;
                if (net->nodes[to].rule >= 0) continue;
                net->nodes[to].rule = net->nodes[queue[i]].rule;
                queue[n++] = to;
            }
    }
    g4_free(net->a, queue);
}

g4_status g4_net_finish(g4_net *net, const char *what, g4_error *err)
{
    g4_halt *halt = net->asker.halt;
    int is_empty = 0;
    if (!net->failed) net->failed = g4_regular_failed(net->regular);
    if (!net->failed) g4_net_remove_dead(net);
    if (!net->failed && !net->rules[net->root].is_live)
        return g4_fail(err, G4_ERR_ARGUMENT, "%s: nothing can satisfy it", what);
    if (!net->failed) is_empty = g4_net_part_empty(net);
    if (!net->failed) g4_net_rewrite_recursion(net);
    net->start = g4_net_node(net);
    if (!net->failed) g4_net_empty(net, net->start, net->rules[net->root].start);
    if (!net->failed && is_empty) g4_net_empty(net, net->start, net->rules[net->root].end);
    if (!net->failed) g4_net_number_nodes(net);
    if (!net->failed) g4_net_find_follow(net);
    if (!net->failed) g4_net_keep_names(net);
    if (!net->failed) net->failed = g4_regular_failed(net->regular);
    net->asker = (g4_asker) { 0 }; /* the call that it was built in ends */
    if (net->failed == G4_NET_TOO_LARGE)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "%s: too large: more than %d nodes", what, G4_MAX_NODES);
    if (g4_halted(halt)) return g4_halt_check(halt, err);
    return net->failed ? g4_fail(err, G4_ERR_MEMORY, "%s: no memory for the grammar", what) : G4_OK;
}
