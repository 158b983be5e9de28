/* prefix.c - beginnings that prompts of a batch share, a system prompt above all: each is evaluated once, in a session
 * of its own, and answers begin in forks of it, which share its memory. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* Fewer tokens than these are sooner read again than kept. */
enum { MIN_SHARED = 32 };

/* Tokens before the first picture or sound: what a prompt can share. */
static int plain_length(const g4_prompt *p) { return p->n_media > 0 ? p->media[0].pos : p->n; }

static int common_length(const g4_token *x, int n_x, const g4_token *y, int n_y)
{
    int n = 0;
    while (n < n_x && n < n_y && x[n] == y[n]) n++;
    return n;
}

int prefix_note(prefix_cache *p, const g4_prompt *prompt)
{
    noted_prompt *slot = &p->noted[p->n_noted % MAX_NOTED];
    const int n = plain_length(prompt);
    g4_token *ids = malloc(((size_t)n + 1) * sizeof *ids);
    if (ids == NULL) return -1; /* it shares nothing then */
    memcpy(ids, prompt->tokens, (size_t)n * sizeof *ids);
    free(slot->ids);
    *slot = (noted_prompt) { .ids = ids, .n = n, .id = p->n_noted };
    return p->n_noted++;
}

/* The kept session that holds the longest beginning of the prompt, or NULL. */
static kept_prefix *find_prefix(prefix_cache *p, const g4_prompt *prompt)
{
    kept_prefix *best = NULL;
    for (int i = 0; i < MAX_PREFIXES; i++) {
        kept_prefix *k = &p->kept[i];
        if (k->session == NULL || (best != NULL && best->n >= k->n)) continue;
        if (common_length(prompt->tokens, plain_length(prompt), g4_session_tokens(k->session), k->n) == k->n) best = k;
    }
    return best;
}

/* How much of the prompt others begin with too, at least `min` tokens; 0: that much nobody has. The least of them comes
 * first: what most share, and others can go on from. */
static int shared_length(const prefix_cache *p, const g4_prompt *prompt, int id, int min)
{
    int shared = 0;
    for (int i = 0; i < MAX_NOTED; i++) {
        const noted_prompt *other = &p->noted[i];
        if (other->ids == NULL || other->id == id) continue;
        const int n = common_length(prompt->tokens, plain_length(prompt), other->ids, other->n);
        if (n >= min && (shared == 0 || n < shared)) shared = n;
    }
    return shared;
}

static void drop_prefix(kept_prefix *k)
{
    g4_session_close(k->session);
    *k = (kept_prefix) { .session = NULL };
}

/* Room for n tokens more: all that is kept has as many positions as one session. */
static kept_prefix *make_room(prefix_cache *p, int n, const kept_prefix *spared)
{
    for (;;) {
        kept_prefix *oldest = NULL, *empty = NULL;
        int total = n;
        for (int i = 0; i < MAX_PREFIXES; i++) {
            kept_prefix *k = &p->kept[i];
            total += k->n;
            if (k->session == NULL)
                empty = k;
            else if (k != spared && (oldest == NULL || k->used < oldest->used))
                oldest = k;
        }
        if (empty != NULL && (total <= p->n_ctx || oldest == NULL)) return empty;
        if (oldest == NULL) return NULL;
        drop_prefix(oldest);
    }
}

/* Keep the first n tokens of the prompt, on from what is kept of them. */
static kept_prefix *keep_prefix(prefix_cache *p, const g4_prompt *prompt, int n, const kept_prefix *begun,
                                g4_error *err)
{
    kept_prefix *k = make_room(p, n, begun);
    if (k == NULL) return NULL;
    g4_status st = begun != NULL ? g4_session_fork(&k->session, begun->session, err)
                                 : g4_session_open(&k->session, p->engine, &p->options, err);
    const int from = begun != NULL ? begun->n : 0;
    if (st == G4_OK) st = g4_session_eval(k->session, prompt->tokens + from, n - from, err);
    if (st != G4_OK) {
        drop_prefix(k);
        return NULL;
    }
    k->n = n;
    p->n_evaluated += (uint64_t)(n - from);
    return k;
}

g4_status prefix_fork(prefix_cache *p, const g4_prompt *prompt, int id, g4_session **out, g4_error *err)
{
    kept_prefix *best = find_prefix(p, prompt);
    const int shared = shared_length(p, prompt, id, (best != NULL ? best->n : 0) + MIN_SHARED);
    *out = NULL;
    if (shared > 0 && shared <= p->n_ctx) {
        kept_prefix *longer = keep_prefix(p, prompt, shared, best, err);
        if (longer == NULL && err->code == G4_ERR_CANCELED) return G4_ERR_CANCELED;
        if (longer != NULL) best = longer; /* else, for want of memory, it is read with the rest of the prompt */
    }
    if (best == NULL) return G4_OK;
    best->used = ++p->clock;
    return g4_session_fork(out, best->session, err);
}

void prefix_close(prefix_cache *p)
{
    for (int i = 0; i < MAX_PREFIXES; i++) drop_prefix(&p->kept[i]);
    for (int i = 0; i < MAX_NOTED; i++) free(p->noted[i].ids);
}
