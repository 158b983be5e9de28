/* network.c - what text may be, as a recursive transition network of bytes: rules of nodes, joined by edges that read a
 * byte or a control token, read nothing, or call a rule and go on at `to`. Patterns, the grammar notation and schemas
 * build one; a network that is finished has no dead ends and no rule that calls itself before it reads something. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <string.h>

#define G4_MAX_NODES 400000

void g4_net_free(g4_net *net)
{
    g4_free(net->a, net->nodes);
    g4_free(net->a, net->edges);
    g4_free(net->a, net->rules);
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
    nodes[net->n_nodes] = (g4_node) { .first = -1, .alias = net->n_nodes };
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
    edge.next = net->nodes[from].first;
    edges[net->n_edges] = edge;
    net->nodes[from].first = net->n_edges++;
}

void g4_net_empty(g4_net *net, int32_t from, int32_t to)
{
    g4_net_edge(net, from, (g4_edge) { .to = to, .kind = G4_EDGE_EMPTY });
}

void g4_net_bytes(g4_net *net, int32_t from, int32_t to, int low, int high)
{
    g4_net_edge(net, from, (g4_edge) { .to = to, .kind = G4_EDGE_BYTES, .low = (uint8_t)low, .high = (uint8_t)high });
}

void g4_net_byte(g4_net *net, int32_t from, int32_t to, int byte) { g4_net_bytes(net, from, to, byte, byte); }

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

/* ---- Texts and characters ------------------------------------------------------------------------ */

int32_t g4_net_text(g4_net *net, int32_t from, const char *s, size_t n)
{
    for (size_t i = 0; i < n && !net->failed; i++) {
        const int32_t to = g4_net_node(net);
        g4_net_byte(net, from, to, (unsigned char)s[i]);
        from = to;
    }
    return from;
}

int32_t g4_net_str(g4_net *net, int32_t from, const char *s) { return g4_net_text(net, from, s, strlen(s)); }

/* Where the edge that reads exactly this byte leads; -1: there is none. */
static int32_t g4_net_behind(const g4_net *net, int32_t from, unsigned char byte)
{
    int32_t to = -1;
    for (int32_t e = net->nodes[from].first; e >= 0; e = net->edges[e].next) {
        const g4_edge *edge = &net->edges[e];
        if (edge->kind == G4_EDGE_BYTES && edge->low == byte && edge->high == byte) to = edge->to;
    }
    return to;
}

int32_t g4_net_word(g4_net *net, int32_t from, const char *s, size_t n)
{
    for (size_t i = 0; i < n && !net->failed; i++) {
        const int32_t to = g4_net_behind(net, from, (unsigned char)s[i]);
        if (to < 0) return g4_net_text(net, from, s + i, n - i);
        from = to;
    }
    return from;
}

/* Split until each piece is one byte range per place of the UTF-8 sequence. */
void g4_net_chars(g4_net *net, int32_t from, int32_t to, uint32_t low, uint32_t high)
{
    static const uint32_t limits[] = { 0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff }; /* last ones of a length, surrogates */
    if (low > high || g4_net_stops(net)) return;
    if (low >= 0xd800 && low <= 0xdfff) low = 0xe000;
    if (high >= 0xd800 && high <= 0xdfff) high = 0xd7ff;
    if (low > high) return;
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        if (low <= limits[i] && high > limits[i]) {
            g4_net_chars(net, from, to, low, limits[i]);
            g4_net_chars(net, from, to, limits[i] + 1, high);
            return;
        }
    char a[4], b[4];
    const size_t n = g4_utf8_encode(low, a);
    for (uint32_t i = 1; i < n; i++) { /* the last i places must run over everything or stand still */
        const uint32_t m = (1u << (6 * i)) - 1;
        if ((low & ~m) == (high & ~m)) continue;
        if ((low & m) != 0) {
            g4_net_chars(net, from, to, low, low | m);
            g4_net_chars(net, from, to, (low | m) + 1, high);
            return;
        }
        if ((high & m) != m) {
            g4_net_chars(net, from, to, low, (high & ~m) - 1);
            g4_net_chars(net, from, to, high & ~m, high);
            return;
        }
    }
    g4_utf8_encode(high, b);
    for (size_t i = 0; i < n; i++) {
        const int32_t next = i + 1 < n ? g4_net_node(net) : to;
        g4_net_bytes(net, from, next, (unsigned char)a[i], (unsigned char)b[i]);
        from = next;
    }
}

/* ---- Finishing ----------------------------------------------------------------------------------- */

static int g4_edge_is_live(const g4_net *net, const g4_edge *edge)
{
    return net->nodes[edge->to].is_live && (edge->kind != G4_EDGE_CALL || net->rules[edge->operand].is_live);
}

/* Which nodes can reach the end of their rule, and which rules can end at all. */
static void g4_net_find_live(g4_net *net)
{
    for (int changed = 1; changed && !g4_halted(net->asker.halt);) {
        changed = 0;
        for (int i = net->n_nodes - 1; i >= 0; i--) {
            g4_node *node = &net->nodes[i];
            int live = node->is_live || node->is_end;
            for (int32_t e = node->first; e >= 0 && !live; e = net->edges[e].next)
                live = g4_edge_is_live(net, &net->edges[e]);
            changed |= live != node->is_live;
            node->is_live = (uint8_t)live;
        }
        for (int r = 0; r < net->n_rules; r++) {
            const uint8_t live = net->nodes[net->rules[r].start].is_live;
            changed |= net->rules[r].is_live != live;
            net->rules[r].is_live = live;
        }
    }
}

/* Edges that lead nowhere would let the model into a dead end. */
static void g4_net_remove_dead(g4_net *net)
{
    for (int i = 0; i < net->n_nodes; i++) {
        int32_t *link = &net->nodes[i].first;
        while (*link >= 0) {
            g4_edge *edge = &net->edges[*link];
            if (g4_edge_is_live(net, edge))
                link = &edge->next;
            else
                *link = edge->next;
        }
    }
}

typedef struct { /* the search for rules that call themselves before they read anything, which would grow the stack
                    for ever */
    const g4_net *net;
    int32_t *leading;  /* (n_nodes) nodes reached without reading a byte */
    uint8_t *is_seen;  /* (n_nodes) all 0 between two uses */
    uint8_t *nullable; /* (n_rules) may be empty */
    uint8_t *progress; /* (n_rules) 0 new, 1 on the path, 2 done */
    int32_t *path;     /* (n_rules) rules being looked into, each called by the one before */
} g4_recursion;

/* Nodes reached from the start of a rule without reading a byte: through empty edges and rules that may be empty.
 * Returns their number. */
static int g4_recursion_leading(const g4_recursion *k, int rule)
{
    const g4_net *net = k->net;
    int n = 0;
    k->leading[n++] = net->rules[rule].start;
    k->is_seen[k->leading[0]] = 1;
    for (int i = 0; i < n; i++)
        for (int32_t e = net->nodes[k->leading[i]].first; e >= 0; e = net->edges[e].next) {
            const g4_edge *edge = &net->edges[e];
            const int passes =
                edge->kind == G4_EDGE_EMPTY || (edge->kind == G4_EDGE_CALL && k->nullable[edge->operand]);
            if (!passes || k->is_seen[edge->to]) continue;
            k->is_seen[edge->to] = 1;
            k->leading[n++] = edge->to;
        }
    for (int i = 0; i < n; i++) k->is_seen[k->leading[i]] = 0;
    return n;
}

static void g4_recursion_find_nullable(const g4_recursion *k)
{
    for (int changed = 1; changed;) {
        changed = 0;
        for (int r = 0; r < k->net->n_rules && !g4_halted(k->net->asker.halt); r++) {
            if (k->nullable[r]) continue;
            const int n = g4_recursion_leading(k, r);
            for (int i = 0; i < n; i++)
                if (k->leading[i] == k->net->rules[r].end) changed = k->nullable[r] = 1;
        }
    }
}

/* Look for a rule that this one calls before it reads anything. *found gets one that is on the path already, *next one
 * that was not looked into yet; -1: there is none. */
static void g4_recursion_calls(const g4_recursion *k, int rule, int *next, int *found)
{
    const g4_net *net = k->net;
    const int n = g4_recursion_leading(k, rule);
    *next = *found = -1;
    for (int i = 0; i < n && *next < 0 && *found < 0; i++)
        for (int32_t e = net->nodes[k->leading[i]].first; e >= 0; e = net->edges[e].next) {
            const int called = net->edges[e].operand;
            if (net->edges[e].kind != G4_EDGE_CALL) continue;
            if (k->progress[called] == 1) *found = called;
            if (k->progress[called] == 0) *next = called;
        }
}

/* The first rule found to call itself before it reads anything, or -1. Depth first, without recursion. */
static int g4_recursion_find(const g4_recursion *k)
{
    int depth = 0, next, found;
    for (int r = 0; r < k->net->n_rules; r++) {
        if (k->progress[r] != 0) continue;
        k->path[depth++] = r;
        while (depth > 0) {
            if (g4_halted(k->net->asker.halt)) return -1;
            const int top = k->path[depth - 1];
            k->progress[top] = 1;
            g4_recursion_calls(k, top, &next, &found);
            if (found >= 0) return found;
            if (next >= 0)
                k->path[depth++] = next;
            else
                k->progress[k->path[--depth]] = 2;
        }
    }
    return -1;
}

static g4_status g4_net_check_recursion(const g4_net *net, const char *what, g4_error *err)
{
    const size_t n_nodes = (size_t)net->n_nodes + 1, n_rules = (size_t)net->n_rules + 1;
    g4_recursion k = { .net = net,
                       .leading = g4_alloc(net->a, n_nodes, sizeof *k.leading),
                       .is_seen = g4_alloc(net->a, n_nodes, 1),
                       .nullable = g4_alloc(net->a, n_rules, 1),
                       .progress = g4_alloc(net->a, n_rules, 1),
                       .path = g4_alloc(net->a, n_rules, sizeof *k.path) };
    g4_status st = G4_OK;
    if (k.leading == NULL || k.is_seen == NULL || k.nullable == NULL || k.progress == NULL || k.path == NULL) {
        st = g4_fail(err, G4_ERR_MEMORY, "%s: no memory for the grammar", what);
    } else {
        g4_recursion_find_nullable(&k);
        const int r = g4_recursion_find(&k);
        const char *name = r >= 0 && net->rules[r].name != NULL ? net->rules[r].name : "a rule";
        const size_t len = r >= 0 && net->rules[r].name != NULL ? net->rules[r].name_len : strlen(name);
        if (r >= 0)
            st = g4_fail(err, G4_ERR_UNSUPPORTED, "%s: %.*s refers to itself before it reads anything", what, (int)len,
                         name);
    }
    g4_free(net->a, k.leading);
    g4_free(net->a, k.is_seen);
    g4_free(net->a, k.nullable);
    g4_free(net->a, k.progress);
    g4_free(net->a, k.path);
    return st;
}

g4_status g4_net_finish(g4_net *net, const char *what, g4_error *err)
{
    if (net->failed == G4_NET_TOO_LARGE)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "%s: too large: more than %d nodes", what, G4_MAX_NODES);
    g4_halt *halt = net->asker.halt;
    if (net->failed) return g4_fail_short(halt, err, "%s: no memory for the grammar", what);
    g4_net_find_live(net);
    g4_net_remove_dead(net);
    if (g4_halted(halt)) return g4_halt_check(halt, err);
    if (!net->rules[net->root].is_live) return g4_fail(err, G4_ERR_ARGUMENT, "%s: nothing can satisfy it", what);
    g4_status st = g4_net_check_recursion(net, what, err);
    if (g4_halted(halt)) st = g4_halt_check(halt, err);
    net->asker = (g4_asker) { 0 };                                    /* the call that it was built in ends */
    for (int r = 0; r < net->n_rules; r++) net->rules[r].name = NULL; /* it points into the caller's text */
    return st;
}
