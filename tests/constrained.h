/* constrained.h - schemas and texts against the grammars of an engine: what the drivers of Python tests share. */
#ifndef G4_CONSTRAINED_H
#define G4_CONSTRAINED_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* clock_gettime under -std=c11 */
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "chat/chat.h"

/* A line of stdin without its end, cut at the tabs; fields point into it. */
typedef struct {
    char *text;
    size_t cap;
    char **fields;
    int n, n_cap;
} g4_line;

/* Returns the number of fields; 0 at the end of the input. */
static inline int g4_line_read(g4_line *l)
{
    const ssize_t len = getline(&l->text, &l->cap, stdin);
    if (len <= 0) return 0;
    if (l->text[len - 1] == '\n') l->text[len - 1] = '\0';
    l->n = 0;
    for (char *p = l->text; p != NULL;) {
        char *tab = strchr(p, '\t');
        if (l->n == l->n_cap) {
            char **fields = realloc(l->fields, sizeof *fields * (size_t)(l->n_cap = 2 * l->n_cap + 16));
            if (fields == NULL) abort();
            l->fields = fields;
        }
        l->fields[l->n++] = p;
        if (tab != NULL) *tab++ = '\0';
        p = tab;
    }
    return l->n;
}

static inline void g4_line_free(g4_line *l)
{
    free(l->fields);
    free(l->text);
}

/* Seconds of the processor that this thread had: other programs do not count. */
static inline double g4_thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What asking that clock costs, which is in every time between two answers of it: the shortest of many, once. */
static inline double g4_thread_clock_cost(void)
{
    static double least = 0;
    for (int i = 0; i < 1000 && (i > 0 || least == 0); i++) {
        const double before = g4_thread_seconds(), cost = g4_thread_seconds() - before;
        if (i == 0 || cost < least) least = cost;
    }
    return least;
}

typedef enum { G4_STRICT, G4_LOOSENED } g4_exactness;

static inline void g4_constrained_warn(void *user, const char *message)
{
    g4_buf *warnings = user;
    if (warnings->len > 0) g4_buf_str(warnings, ", ");
    g4_json_quote(warnings, message, strlen(message));
}

/* A grammar of a schema; warnings, which may be NULL, gets a JSON string for each thing that was loosened. */
static inline g4_status g4_constrained_open(g4_grammar **out, const g4_engine *e, const char *schema, g4_exactness how,
                                            g4_buf *warnings, g4_error *err)
{
    const g4_schema_options opt = { .strict = how == G4_STRICT,
                                    .warn = warnings != NULL ? g4_constrained_warn : NULL,
                                    .user = warnings };
    return g4_grammar_from_schema(out, e, schema, strlen(schema), &opt, err);
}

/* The same of calls of tools. */
static inline g4_status g4_constrained_open_tools(g4_grammar **out, const g4_engine *e, const char *tools,
                                                  g4_exactness how, g4_error *err)
{
    const g4_schema_options opt = { .strict = how == G4_STRICT };
    return g4_grammar_from_tools(out, e, tools, strlen(tools), NULL, &opt, err);
}

typedef struct {
    int n_tokens;
    int read;       /* tokens that fitted */
    int may_end;    /* all fitted, and the text may end there */
    int disagrees;  /* at some token mask and reading said different things */
    double reading; /* seconds */
    double *masks;  /* (n_masks) seconds each, written into memory of one's own, the clock's apart; NULL: not timed */
    int n_masks;    /* n_tokens + 1 when all fitted */
    double first;   /* seconds since `start`, when the first mask was there */
    g4_error err;   /* code G4_OK: nothing failed */
} g4_trial;

/* Follow a text token by token through the masks. start: the thread's clock when the schema began to be read. */
static inline void g4_trial_run(g4_trial *r, g4_grammar *g, const g4_tokenizer *t, const char *text, size_t len,
                                double start, int is_timed)
{
    static uint32_t written[(1 << 20) / 32];
    g4_tokens ids = { 0 };
    memset(r, 0, sizeof *r);
    if (g4_tokenizer_encode(t, NULL, text, len, 0, &ids, NULL, &r->err) != G4_OK) return;
    r->n_tokens = (int)ids.n;
    const double clock_cost = is_timed ? g4_thread_clock_cost() : 0;
    if (is_timed && (r->masks = malloc(sizeof *r->masks * (ids.n + 1))) == NULL) abort();
    if (g4_grammar_enter(g, NULL, &r->err) == G4_OK) {
        double before = g4_thread_seconds(), after;
        int32_t state = g4_grammar_start(g);
        r->reading += g4_thread_seconds() - before;
        for (size_t i = 0; state != 0; i++) {
            before = g4_thread_seconds();
            state = g4_grammar_settle(g, state);
            if (!g4_grammar_write_mask(g, state, written)) break;
            after = g4_thread_seconds();
            if (is_timed) r->masks[r->n_masks++] = after - before > clock_cost ? after - before - clock_cost : 0;
            if (i == 0) r->first = after - start;
            if (i == ids.n) {
                r->may_end = g4_grammar_accepts(g, state);
                break;
            }
            const uint32_t id = (uint32_t)ids.ids[i];
            const int fits = (int)(written[id / 32] >> (id % 32) & 1);
            before = g4_thread_seconds();
            state = g4_grammar_read(g, state, ids.ids[i]);
            r->reading += g4_thread_seconds() - before;
            if (g4_grammar_failed(g)) break;
            if (fits != (state != 0)) {
                r->disagrees = 1;
                break;
            }
            r->read += fits;
        }
        if (g4_grammar_leave(g, &r->err) != G4_OK) r->may_end = 0;
    }
    g4_free(NULL, ids.ids);
}

#endif
