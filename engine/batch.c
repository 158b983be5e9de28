/* batch.c - several answers in one read of the weights.
 *
 * A step is one forward pass: the next tokens of all sessions that answer, and a piece of the prompts of those that
 * still read. A row gets the bits it would get alone (gemma4.c), a random number belongs to its seed and position, and
 * what a session chooses, tells and forgets is the code of g4_session_generate; so an answer does not depend on who
 * shares its passes. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "generate.h"

#define G4_BATCH_DELAY 1.5 /* steps' worth of products for prompts: with attention a step takes below 3 times as long */
#define G4_BATCH_FREE_ROWS 4  /* so many answers take as long as one, which waits for memory */
#define G4_BATCH_HEAD_ROWS 16 /* states whose logits are computed together */
#define G4_BATCH_ENCODE 0.1   /* seconds: about a step of E2B */

typedef enum { G4_MEMBER_READS, G4_MEMBER_ANSWERS, G4_MEMBER_IS_OVER } g4_member_state;

typedef struct { /* a session in a batch: in a call from add to done */
    g4_session *s;
    g4_batch_request request;
    g4_generate_options generate;
    g4_batch_finish_fn finish; /* NULL: none */
    g4_call call;
    g4_member_state state;
    g4_reading reading;
    int *marks; /* (n_marks): positions of the prompt to mark, ascending */
    int n_marks, next_mark;
    g4_reply reply;
    g4_checkpoint old; /* what the timeline was before the answer */
    g4_await await;
    int first, n; /* its rows in the pass */
    int waits;    /* a picture that fitted beside nobody goes first next time */
    g4_status status;
    g4_result result;
    g4_error err;
} g4_member;

struct g4_batch {
    g4_engine *e;
    int n_rows, prompt_rows; /* prompt_rows 0: by what rows cost */
    double rows_per_answer;  /* of prompts, for each row of an answer */
    double encode_seconds;
    g4_limits limits;
    g4_member **members;
    int n, cap;
    int turn;     /* who is asked first when rows are handed out */
    int steps_in; /* it is in a step, and callbacks may be running */
    int closes;   /* nobody may join */
    g4_blocks blocks;
    float *room; /* (G4_BATCH_HEAD_ROWS, pad16(vocab)) */
};

/* ---- Members ----------------------------------------------------------------------------------------------- */

/* Its call is over, with that status. */
static void g4_member_end(g4_member *m, g4_status status)
{
    const int answers = m->state == G4_MEMBER_ANSWERS;
    if (answers && m->await == G4_AWAIT_PASS) g4_chooser_passed(&m->reply.next, status);
    if (answers) {
        status = g4_reply_close(&m->reply, status, &m->err);
        m->result = m->reply.result;
    }
    if (status == G4_ERR_CANCELED) m->result.stop = G4_STOP_CANCELED;
    if (m->finish) status = m->finish(m->request.user, status, &m->result, &m->err);
    if (status && status != G4_ERR_CANCELED) m->result = (g4_result) { .stop_token = -1 };
    if (answers)
        g4_checkpoint_end(&m->old, m->s, status);
    else if (m->state == G4_MEMBER_READS)
        g4_reading_end(&m->reading, status);
    m->result.n_reused = m->reading.reused;
    m->state = G4_MEMBER_IS_OVER;
    m->status = g4_call_end(&m->call, status);
}

/* The prompt is read: the answer begins. */
static void g4_member_answer(g4_member *m)
{
    g4_session *s = m->s;
    g4_reading_end(&m->reading, G4_OK);
    m->state = G4_MEMBER_IS_OVER; /* what fails here has nothing left to end */
    g4_status status = g4_checkpoint_take(&m->old, s, s->n, &m->err);
    if (status) {
        g4_member_end(m, status);
        return;
    }
    status = g4_reply_open(&m->reply, s, &m->generate, &m->err);
    if (status) {
        g4_checkpoint_drop(&m->old, s);
        g4_member_end(m, status);
        return;
    }
    m->state = G4_MEMBER_ANSWERS;
}

/* Choose and tell until the model is needed. */
static void g4_member_go_on(g4_member *m)
{
    const g4_status status = g4_reply_go_on(&m->reply, &m->await, &m->err);
    if (status || m->await == G4_AWAIT_NOTHING) g4_member_end(m, status);
}

static g4_stretch *g4_member_stretch(g4_member *m)
{
    return m->state == G4_MEMBER_READS ? &m->reading.stretch : &m->reply.next.stretch;
}

/* Mark the position that a prompt has come to, if that is wanted. */
static g4_status g4_member_mark(g4_member *m)
{
    if (m->next_mark == m->n_marks || m->marks[m->next_mark] != m->s->n) return G4_OK;
    m->next_mark++;
    return g4_timeline_mark(m->s, &m->err);
}

/* Its rows of the pass are evaluated. */
static void g4_member_passed(g4_member *m)
{
    g4_stretch *stretch = g4_member_stretch(m);
    const int n = m->n;
    m->n = 0;
    g4_status status = g4_stretch_advance(stretch, n, &m->err);
    if (!status && m->state == G4_MEMBER_READS) status = g4_member_mark(m);
    if (status) {
        g4_member_end(m, status);
    } else if (m->state == G4_MEMBER_ANSWERS) {
        m->await = G4_AWAIT_NOTHING;
        if (g4_chooser_passed(&m->reply.next, G4_OK) == G4_OK) g4_member_go_on(m);
    }
}

/* ---- Who gets how many rows --------------------------------------------------------------------------------- */

static g4_member *g4_batch_turn(const g4_batch *b, int i) { return b->members[(b->turn + i) % b->n]; }

/* Give a member at most `max` rows of a pass of which `used` are taken: a picture whose tokens see each other gets as
 * many as it has, where they fit, and nobody more than fit unless it is alone. Returns how many it has got. */
static int g4_batch_give(const g4_batch *b, g4_member *m, int max, int used)
{
    int n;
    if (m->state == G4_MEMBER_READS && m->next_mark < m->n_marks)
        max = g4_min_int(max, m->marks[m->next_mark] - m->s->n);
    const g4_status status = g4_stretch_next(g4_member_stretch(m), max, &n, &m->err);
    if (status) {
        g4_member_end(m, status);
        return 0;
    }
    m->waits = used > 0 && used + n > b->n_rows;
    if (m->waits) return 0;
    m->first = used;
    return m->n = n;
}

/* Rows of prompts beside n rows of answers. */
static int g4_batch_beside(const g4_batch *b, int n)
{
    const double by_cost = b->rows_per_answer * g4_max_int(n, G4_BATCH_FREE_ROWS);
    const int left = b->n_rows - n;
    if (b->prompt_rows) return g4_min_int(b->prompt_rows, left);
    return by_cost < left ? (int)by_cost : left;
}

/* Hand out the rows of the next pass: first to those that answer, then to those that read, the rest of the pass or, if
 * anybody answers, what may delay them, in equal shares. Returns how many there are. */
static int g4_batch_plan(g4_batch *b)
{
    int used = 0, n_reading = 0;
    for (int i = 0; i < b->n && used == 0; i++) {
        g4_member *m = g4_batch_turn(b, i);
        if (m->state == G4_MEMBER_READS && m->waits) used = g4_batch_give(b, m, 1, 0);
    }
    for (int i = 0; i < b->n; i++) {
        g4_member *m = g4_batch_turn(b, i);
        n_reading += m->state == G4_MEMBER_READS;
        if (m->state != G4_MEMBER_ANSWERS || m->await != G4_AWAIT_PASS) continue;
        used += g4_batch_give(b, m, m->reply.next.stretch.end - m->s->n, used); /* guesses are no timeline to stop at */
    }
    int left = used > 0 ? g4_batch_beside(b, used) : b->n_rows;
    for (int i = 0; i < b->n && n_reading > 0; i++) {
        g4_member *m = g4_batch_turn(b, i);
        if (m->state != G4_MEMBER_READS || m->n > 0) continue;
        const int given = g4_batch_give(b, m, g4_max_int(1, left / n_reading), used);
        n_reading--;
        left -= given;
        used += given;
    }
    if (b->n > 0) b->turn = (b->turn + 1) % b->n;
    return used;
}

/* ---- The model ---------------------------------------------------------------------------------------------- */

/* One forward pass over the rows that were handed out. */
static g4_status g4_batch_pass(g4_batch *b, int n_rows, g4_halt *halt, g4_error *err)
{
    g4_engine *e = b->e;
    const g4_status status = g4_engine_enter(e, halt, err);
    if (status) return status;
    for (int i = 0; i < b->n; i++) {
        const g4_member *m = b->members[i];
        if (m->n > 0) g4_stretch_fill(g4_member_stretch(b->members[i]), e->rows + m->first, m->n);
    }
    g4_forward(&e->model, e->rows, n_rows, NULL);
    const int is_halted = g4_halted(halt);
    for (int i = 0; !is_halted && i < b->n; i++) {
        const g4_member *m = b->members[i];
        if (m->n > 0) g4_stretch_keep(g4_member_stretch(b->members[i]), m->n, m->first);
    }
    return g4_engine_leave(e, halt, err);
}

typedef struct { /* final states whose logits are computed together, and the members they belong to */
    g4_head_row rows[G4_BATCH_HEAD_ROWS];
    g4_member *member[G4_BATCH_HEAD_ROWS];
    int n, n_members;
} g4_head_batch;

/* Compute the logits of what has gathered. */
static g4_status g4_head_batch_compute(const g4_batch *b, g4_head_batch *h, g4_halt *halt, g4_error *err)
{
    const uint32_t n_vocab = b->e->file.config.n_vocab;
    if (h->n == 0) return G4_OK;
    g4_status status = g4_engine_enter(b->e, halt, err);
    if (status) return status;
    g4_head_each(&b->e->model, h->rows, h->n, b->room, g4_round_up(n_vocab, 16));
    for (int i = 0; i < h->n; i++)
        if (!h->rows[i].group_max) g4_head_softcap(&b->e->model, h->rows[i].logits);
    status = g4_engine_leave(b->e, halt, err);
    for (int i = 0; !status && i < h->n_members; i++) g4_chooser_take_logits(&h->member[i]->reply.next);
    h->n = h->n_members = 0;
    return status;
}

/* The logits of all that need them. Whose choice depends on a few tokens reads those groups of the head alone. */
static g4_status g4_batch_heads(const g4_batch *b, g4_halt *halt, g4_error *err)
{
    g4_head_batch h = { .n = 0 };
    g4_status status = G4_OK;
    for (int i = 0; i < b->n; i++) {
        g4_member *m = b->members[i];
        g4_head_row rows[G4_HEAD_ROWS];
        if (m->state != G4_MEMBER_ANSWERS || m->await != G4_AWAIT_HEAD) continue;
        const int n = g4_chooser_head_rows(&m->reply.next, rows);
        if (n == 0) {
            const g4_status alone = g4_chooser_serve(&m->reply.next, G4_AWAIT_HEAD, &m->err);
            if (alone) g4_member_end(m, alone);
            continue;
        }
        if (h.n + n > G4_BATCH_HEAD_ROWS) status = g4_head_batch_compute(b, &h, halt, err);
        if (status) break;
        memcpy(h.rows + h.n, rows, (size_t)n * sizeof *rows);
        h.n += n;
        h.member[h.n_members++] = m;
    }
    return status ? status : g4_head_batch_compute(b, &h, halt, err);
}

/* ---- The step ----------------------------------------------------------------------------------------------- */

static int g4_batch_need_heads(const g4_batch *b)
{
    for (int i = 0; i < b->n; i++)
        if (b->members[i]->state == G4_MEMBER_ANSWERS && b->members[i]->await == G4_AWAIT_HEAD) return 1;
    return 0;
}

/* Tell of those that are over or cancelled, and let them go; `done` may add others, and remove them. */
static void g4_batch_sweep(g4_batch *b)
{
    for (int i = 0; i < b->n;) {
        g4_member *m = b->members[i];
        if (m->state != G4_MEMBER_IS_OVER && g4_halt_check(&m->call.halt, &m->err)) g4_member_end(m, G4_ERR_CANCELED);
        if (m->state != G4_MEMBER_IS_OVER) {
            i++;
            continue;
        }
        memmove(b->members + i, b->members + i + 1, (size_t)(b->n - i - 1) * sizeof *b->members);
        b->n--;
        if (m->request.done) m->request.done(m->request.user, m->s, m->status, &m->result, m->status ? &m->err : NULL);
        g4_free(b->e->a, m->marks);
        g4_free(b->e->a, m);
        i = 0; /* the next may be any of the others */
    }
    b->turn = b->n > 0 ? b->turn % b->n : 0;
}

/* All members go on as far as they come without the model, but for those that read. */
static void g4_batch_go_on(const g4_batch *b)
{
    for (int i = 0; i < b->n; i++) {
        g4_member *m = b->members[i];
        const g4_stretch *stretch = &m->reading.stretch;
        if (m->state != G4_MEMBER_IS_OVER && g4_halt_check(&m->call.halt, &m->err)) g4_member_end(m, G4_ERR_CANCELED);
        if (m->state == G4_MEMBER_READS && (!m->reading.reads || m->s->n == stretch->end)) g4_member_answer(m);
        if (m->state == G4_MEMBER_ANSWERS && m->await == G4_AWAIT_NOTHING) g4_member_go_on(m);
    }
}

static g4_status g4_batch_evaluate(g4_batch *b, g4_error *err)
{
    g4_halt own, *halt = g4_engine_halt(b->e, &own);
    g4_halt_add(halt, &b->limits);
    g4_batch_go_on(b);
    const int n_rows = g4_batch_plan(b);
    g4_status status = n_rows > 0 ? g4_batch_pass(b, n_rows, halt, err) : G4_OK;
    for (int i = 0; i < b->n; i++) {
        g4_member *m = b->members[i];
        if (m->n > 0 && !status) g4_member_passed(m);
        m->n = 0;
    }
    if (!status) g4_batch_go_on(b);
    while (!status && g4_batch_need_heads(b)) {
        status = g4_batch_heads(b, halt, err);
        for (int i = 0; !status && i < b->n; i++) {
            g4_member *m = b->members[i];
            if (m->state == G4_MEMBER_ANSWERS && m->await == G4_AWAIT_HEAD) g4_member_go_on(m);
        }
    }
    return status;
}

g4_status g4_batch_step(g4_batch *b, g4_error *err)
{
    if (!b) return g4_fail(err, G4_ERR_ARGUMENT, "batch is NULL");
    g4_status status = g4_engine_check(b->e, err);
    if (!status && b->steps_in) status = g4_fail(err, G4_ERR_ARGUMENT, "this batch is in a step already");
    if (status) return status;
    b->steps_in = 1;
    status = g4_batch_evaluate(b, err);
    g4_batch_sweep(b);
    b->steps_in = 0;
    return status;
}

g4_status g4_batch_run(g4_batch *b, g4_error *err)
{
    g4_status status = b ? G4_OK : g4_batch_step(b, err);
    while (!status && b->n > 0) status = g4_batch_step(b, err);
    return status;
}

/* ---- Media are encoded ----------------------------------------------------------------------------------------
 *
 * A picture takes seconds, in which the answers go on: between the parts of a layer, at which a tower has waited for
 * all threads anyway and holds nothing that a step uses, the engine's lock is let go for a step. */

static void g4_batch_step_between(void *user)
{
    g4_batch_rest *rest = user;
    const g4_engine *e = rest->b->e;
    if (rest->b->n == 0 || rest->b->steps_in || g4_seconds() - rest->since < rest->b->encode_seconds) return;
    g4_engine_unlock(e);
    g4_batch_step(rest->b, NULL);
    g4_engine_enter(e, NULL, NULL); /* nothing halts that: the tower goes on, or ends, under the lock */
    g4_pool_halt(e->compute.pool, rest->halt);
    rest->since = g4_seconds();
}

void g4_batch_rest_open(g4_batch_rest *rest, g4_batch *b, const g4_engine *e, g4_halt *halt)
{
    if (e != b->e) return; /* which is refused in the end */
    *rest = (g4_batch_rest) { b, halt, g4_seconds() };
    halt->rest = g4_batch_step_between;
    halt->user = rest;
}

/* ---- Opening, adding, closing -------------------------------------------------------------------------------- */

g4_status g4_batch_open(g4_batch **out, g4_engine *e, const g4_batch_options *opt, g4_error *err)
{
    static const g4_batch_options defaults = { 0 };
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    const g4_status status = g4_engine_check(e, err);
    if (status) return status;
    if (!opt) opt = &defaults;
    const g4_config *c = &e->file.config;
    if (c->n_layers == 0) return g4_fail(err, G4_ERR_UNSUPPORTED, "the file holds a tokenizer only");
    const int max = g4_model_max_rows(&e->model);
    if (opt->n_rows < 0 || opt->n_rows > max || opt->prompt_rows < 0)
        return g4_fail(err, G4_ERR_ARGUMENT, "n_rows %d (at most %d) or prompt_rows %d", opt->n_rows, max,
                       opt->prompt_rows);
    g4_batch *b = g4_alloc(e->a, 1, sizeof *b);
    if (!b) return g4_fail(err, G4_ERR_MEMORY, "no memory for a batch");
    b->e = e;
    b->n_rows = opt->n_rows ? opt->n_rows : max;
    b->prompt_rows = opt->prompt_rows;
    g4_engine_info info;
    g4_engine_get_info(e, &info);
    b->rows_per_answer = G4_BATCH_DELAY * (double)info.decode_products / (double)info.prompt_products;
    b->encode_seconds = opt->encode_seconds != 0 ? opt->encode_seconds : G4_BATCH_ENCODE;
    b->limits = opt->limits;
    b->blocks.a = e->a;
    b->room = g4_blocks_add(&b->blocks, G4_BATCH_HEAD_ROWS, g4_round_up(c->n_vocab, 16), sizeof *b->room);
    if (b->blocks.failed) {
        g4_free(e->a, b);
        return g4_fail(err, G4_ERR_MEMORY, "no memory for the logits of a batch");
    }
    *out = b;
    return G4_OK;
}

int g4_batch_n(const g4_batch *b) { return b ? b->n : 0; }

static g4_status g4_batch_check(const g4_batch *b, const g4_session *s, const g4_batch_request *r, g4_error *err)
{
    if (!b || !s || !r) return g4_fail(err, G4_ERR_ARGUMENT, "%s is NULL", !b ? "batch" : !s ? "session" : "request");
    if (b->closes) return g4_fail(err, G4_ERR_ARGUMENT, "this batch is being closed");
    if (s->e != b->e) return g4_fail(err, G4_ERR_MISMATCH, "the session is one of another engine");
    if (g4_taps_given(&s->taps)) return g4_fail(err, G4_ERR_UNSUPPORTED, "a session with taps cannot share a pass");
    if (!r->prompt && s->n == 0)
        return g4_fail(err, G4_ERR_ARGUMENT, "nothing to continue: the timeline is empty and there is no prompt");
    if (r->prompt && r->prompt->n == 0) return g4_fail(err, G4_ERR_ARGUMENT, "a prompt of 0 tokens");
    for (int i = 0; i < b->n; i++)
        if (b->members[i]->s == s && b->members[i]->state != G4_MEMBER_IS_OVER)
            return g4_fail(err, G4_ERR_ARGUMENT, "the session is in the batch already");
    return G4_OK;
}

/* Let it into a call of its own, which goes on until it is over. */
static g4_status g4_member_begin(g4_member *m, const g4_prompt *prompt, const g4_batch_more *more, g4_error *err)
{
    const int n_marks = more ? more->n_marks : 0;
    g4_status status = g4_call_begin(&m->call, m->s, &m->generate.limits, err);
    if (!status && n_marks > 0 && !(m->marks = g4_alloc(m->s->e->a, (size_t)n_marks, sizeof *m->marks)))
        status = g4_fail(err, G4_ERR_MEMORY, "no memory for %d marks", n_marks);
    if (!status) status = g4_reading_begin(&m->reading, m->s, prompt, err);
    for (int i = 0; !status && i < n_marks; i++)
        if (more->marks[i] > m->s->n)
            m->marks[m->n_marks++] = more->marks[i]; /* those before are there, or were given up */
    return status ? g4_call_end(&m->call, status) : G4_OK;
}

g4_status g4_batch_add_more(g4_batch *b, g4_session *s, const g4_batch_request *r, const g4_batch_more *more,
                            g4_error *err)
{
    g4_status status = g4_batch_check(b, s, r, err);
    if (status) return status;
    g4_member **members = g4_array_grow(b->e->a, b->members, b->n, &b->cap, sizeof *members);
    if (members) b->members = members;
    g4_member *m = members ? g4_alloc(b->e->a, 1, sizeof *m) : NULL;
    if (!m) return g4_fail(err, G4_ERR_MEMORY, "no memory for one more session in the batch");
    m->s = s;
    m->request = *r;
    if (r->generate) m->generate = *r->generate;
    if (more) m->finish = more->finish;
    m->result.stop_token = -1;
    status = g4_member_begin(m, r->prompt, more, err);
    if (status) {
        g4_free(b->e->a, m->marks);
        g4_free(b->e->a, m);
        return status;
    }
    b->members[b->n++] = m;
    return G4_OK;
}

g4_status g4_batch_add(g4_batch *b, g4_session *s, const g4_batch_request *r, g4_error *err)
{
    return g4_batch_add_more(b, s, r, NULL, err);
}

void g4_batch_remove(g4_batch *b, g4_session *s)
{
    const int is_callback = b && b->steps_in;
    if (!b) return;
    b->steps_in = 1;
    for (int i = 0; i < b->n; i++) {
        g4_member *m = b->members[i];
        if (m->s != s || m->state == G4_MEMBER_IS_OVER) continue;
        if (is_callback) { /* what it is in goes on with it; the sweep behind that ends it */
            g4_session_cancel(s);
            return;
        }
        g4_fail(&m->err, G4_ERR_CANCELED, "removed from its batch");
        g4_member_end(m, G4_ERR_CANCELED);
    }
    if (is_callback) return;
    g4_batch_sweep(b);
    b->steps_in = 0;
}

/* ---- What is being read serves others ------------------------------------------------------------------------ */

static g4_status g4_batch_find(const g4_batch *b, const g4_session *s, g4_member **out, g4_error *err)
{
    if (!b || !s) return g4_fail(err, G4_ERR_ARGUMENT, "%s is NULL", !b ? "batch" : "session");
    if (b->steps_in) return g4_fail(err, G4_ERR_ARGUMENT, "this batch is in a step");
    for (int i = 0; i < b->n; i++) {
        *out = b->members[i];
        if ((*out)->s == s && (*out)->state != G4_MEMBER_IS_OVER) return G4_OK;
    }
    return g4_fail(err, G4_ERR_ARGUMENT, "the session is not in the batch");
}

g4_status g4_batch_mark(g4_batch *b, const g4_session *s, int n, g4_error *err)
{
    g4_member *m = NULL;
    const g4_status status = g4_batch_find(b, s, &m, err);
    if (status) return status;
    n = g4_timeline_outside_media(m->s, n);
    if (m->state != G4_MEMBER_READS || n <= s->n || n >= m->reading.stretch.end) return G4_OK;
    int at = m->next_mark;
    while (at < m->n_marks && m->marks[at] < n) at++;
    if (at < m->n_marks && m->marks[at] == n) return G4_OK;
    int *marks = g4_realloc(b->e->a, m->marks, (size_t)m->n_marks + 1, sizeof *marks);
    if (!marks) return g4_fail(err, G4_ERR_MEMORY, "no memory for %d marks", m->n_marks + 1);
    m->marks = marks;
    memmove(marks + at + 1, marks + at, (size_t)(m->n_marks - at) * sizeof *marks);
    marks[at] = n;
    m->n_marks++;
    return G4_OK;
}

g4_status g4_batch_fork(g4_batch *b, g4_session **out, const g4_session *s, int n, g4_error *err)
{
    g4_member *m = NULL;
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    g4_status status = g4_batch_find(b, s, &m, err);
    if (!status && n < 0) status = g4_fail(err, G4_ERR_ARGUMENT, "a fork of %d tokens", n);
    if (!status) status = g4_fork_make(out, s, err);
    if (status) return status;
    g4_timeline_settle(*out);
    g4_timeline_cut(*out, n);
    return G4_OK;
}

void g4_batch_close(g4_batch *b)
{
    if (!b || b->steps_in) return;
    b->steps_in = b->closes = 1;
    for (int i = 0; i < b->n; i++) {
        g4_fail(&b->members[i]->err, G4_ERR_CANCELED, "its batch is closed");
        g4_member_end(b->members[i], G4_ERR_CANCELED);
    }
    g4_batch_sweep(b);
    g4_free(b->e->a, b->members);
    g4_blocks_free(&b->blocks);
    g4_free(b->e->a, b);
}
