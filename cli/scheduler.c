/* scheduler.c - who is answered when, and where: one thread that owns the batch and the sessions. Jobs wait in a queue
 * until there is a place; each begins in the session that holds most of its prompt already. A session is taken over
 * where that keeps at least half of what it holds; else the job gets a fork of it, or a new one, so that a short prompt
 * of another kind never costs a long conversation what it has read. A job whose beginning another one is reading waits
 * for that and forks it. Sessions without use stay within a budget of memory, and those that were used last. */
#include "serve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MIN_COMMON = 32 };         /* tokens; a fork for fewer saves nothing */
enum { KEPT_BUDGET = 512 << 20 }; /* bytes of sessions without use, as much as one keeps of snapshots */
enum { MAX_UNSENT = 4 << 20 };    /* bytes of events for a client that does not read */

/* ---- Jobs ------------------------------------------------------------------------------------------------------- */

int job_init(served_job *j, request_shop *shop)
{
    pthread_condattr_t attr;
    *j = (served_job) { .placed = "" };
    request_open(&j->work, shop);
    j->work.limits.cancel = &j->gone;
    pthread_mutex_init(&j->lock, NULL);
    if (pthread_condattr_init(&attr) != 0) return 0;
#ifndef __APPLE__ /* which has no other clock to wait by */
    pthread_condattr_setclock(&attr, WAIT_CLOCK);
#endif
    const int is_made = pthread_cond_init(&j->changed, &attr) == 0;
    pthread_condattr_destroy(&attr);
    return is_made;
}

void job_free(served_job *j)
{
    g4_stream_close(j->stream);
    g4_guide_close(j->guide);
    request_close(&j->work);
    buffer_free(&j->out);
    pthread_cond_destroy(&j->changed);
    pthread_mutex_destroy(&j->lock);
}

/* Its client will read nothing more. */
static void job_drop(served_job *j)
{
    atomic_store(&j->has_gone, 1);
    g4_cancel_set(&j->gone);
}

/* An event that waits for the client's own thread. */
static int add_event(void *user, const void *data, size_t size)
{
    served_job *j = user;
    if (j->tell != NULL) return j->tell(j->told, data, size);
    pthread_mutex_lock(&j->lock);
    buffer_add(&j->out, data, size);
    j->is_full = j->out.failed || j->out.len > MAX_UNSENT;
    const int is_full = j->is_full;
    pthread_cond_signal(&j->changed);
    pthread_mutex_unlock(&j->lock);
    if (is_full) job_drop(j);
    return is_full;
}

int job_open_stream(served_job *j)
{
    request_work *w = &j->work;
    if (j->stream != NULL) return 1;
    w->figures.prompt_tokens = w->prompt.n;
    g4_answer known = answer_describe(&w->writer, &w->figures);
    known.choice = j->choice;
    known.has_more = j->has_more;
    const g4_stream_options opt = {
        .answer = &known, .include_usage = g4_request_get(w->request)->include_usage, .write = add_event, .user = j
    };
    return g4_stream_open(&j->stream, &opt, NULL, &w->error) == G4_OK;
}

static void job_is(served_job *j, job_state state)
{
    pthread_mutex_lock(&j->lock);
    j->state = state;
    pthread_cond_signal(&j->changed);
    pthread_mutex_unlock(&j->lock);
}

/* ---- Sessions ---------------------------------------------------------------------------------------------------- */

static int count_common(const g4_prompt *p, const g4_session *s)
{
    const g4_token *held = g4_session_tokens(s);
    const int most = g4_session_n(s) < p->n ? g4_session_n(s) : p->n;
    int n = 0;
    while (n < most && held[n] == p->tokens[n]) n++;
    return n;
}

/* Tokens before the first picture or sound, which are equal only if their bytes are. */
static int plain_length(const g4_prompt *p) { return p->n_media > 0 ? p->media[0].pos : p->n; }

/* How far two prompts are the same text. */
static int count_alike(const g4_prompt *p, const g4_prompt *q)
{
    const int n_p = plain_length(p), n_q = plain_length(q), most = n_p < n_q ? n_p : n_q;
    int n = 0;
    while (n < most && p->tokens[n] == q->tokens[n]) n++;
    return n;
}

static void drop_kept(scheduler *s, kept_session *k)
{
    atomic_fetch_sub(&s->kept_bytes, k->bytes);
    atomic_fetch_sub(&s->n_kept, 1);
    g4_session_close(k->session);
    *k = (kept_session) { .session = NULL };
}

/* The one without use that was used least lately; NULL: there is none. */
static kept_session *oldest_kept(scheduler *s, const kept_session *spared)
{
    kept_session *oldest = NULL;
    for (int i = 0; i < MAX_KEPT; i++) {
        kept_session *k = &s->kept[i];
        if (k->session == NULL || k->job != NULL || k == spared) continue;
        if (oldest == NULL || k->used < oldest->used) oldest = k;
    }
    return oldest;
}

/* What is kept without use comes back into its budget. */
static void keep_to_budget(scheduler *s)
{
    while (atomic_load(&s->kept_bytes) > KEPT_BUDGET) {
        kept_session *oldest = oldest_kept(s, NULL);
        if (oldest == NULL) return;
        drop_kept(s, oldest);
    }
}

/* A place for one more session. There is always one: as many as are in use fit, and others give way. */
static kept_session *free_place(scheduler *s, const kept_session *spared)
{
    for (int i = 0; i < MAX_KEPT; i++) {
        if (s->kept[i].session == NULL) return &s->kept[i];
    }
    kept_session *oldest = oldest_kept(s, spared);
    if (oldest != NULL) drop_kept(s, oldest);
    return oldest;
}

/* The session without use that holds most of the prompt. */
static kept_session *best_kept(scheduler *s, const g4_prompt *prompt, int *n_common)
{
    kept_session *best = NULL;
    *n_common = 0;
    for (int i = 0; i < MAX_KEPT; i++) {
        kept_session *k = &s->kept[i];
        const int n = k->session != NULL && k->job == NULL ? count_common(prompt, k->session) : 0;
        if (n > *n_common) {
            *n_common = n;
            best = k;
        }
    }
    return best;
}

/* The session in use that holds more than *n_common tokens of the prompt's text, and most of it. */
static kept_session *best_used(scheduler *s, const g4_prompt *prompt, int *n_common)
{
    const g4_prompt plain = { .tokens = prompt->tokens, .n = plain_length(prompt) };
    kept_session *best = NULL;
    for (int i = 0; i < MAX_KEPT; i++) {
        kept_session *k = &s->kept[i];
        const int n = k->session != NULL && k->job != NULL ? count_common(&plain, k->session) : 0;
        if (n <= *n_common) continue;
        *n_common = n;
        best = k;
    }
    return best;
}

static int is_reading(const kept_session *k)
{
    return k->session != NULL && k->job != NULL && g4_session_n(k->session) < k->job->work.prompt.n;
}

/* How far a session in use is about to hold what the prompt begins with; 0: it holds something else. */
static int count_coming(const kept_session *k, const g4_prompt *prompt)
{
    const g4_prompt *other = &k->job->work.prompt;
    return count_common(other, k->session) == g4_session_n(k->session) ? count_alike(prompt, other) : 0;
}

/* Is another reading what this job begins with? Then it stops there for a moment, and this one goes on from it: both
 * get there sooner than if each read it, for they would share the passes. That is so unless the other has further to go
 * than this one, beside those that read now, would gain. */
static int waits_for_beginning(scheduler *s, served_job *j)
{
    const g4_prompt *prompt = &j->work.prompt;
    const kept_session *best = NULL;
    int own, held, n_reading = 0;
    best_kept(s, prompt, &own);
    held = own;
    best_used(s, prompt, &held);
    held += MIN_COMMON - 1;
    for (int i = 0; i < MAX_KEPT; i++) n_reading += is_reading(&s->kept[i]);
    for (int i = 0; i < MAX_KEPT && n_reading > 0; i++) {
        const kept_session *k = &s->kept[i];
        const int n = is_reading(k) ? count_coming(k, prompt) : 0;
        if (n <= held || (n - g4_session_n(k->session)) * n_reading > (n - own) * (n_reading + 1)) continue;
        held = n;
        best = k;
    }
    return best != NULL && g4_batch_mark(s->batch, best->session, held, NULL) == G4_OK;
}

/* Begin in a fork of a session in use, where that has more than n_kept tokens to give; 0: it has not, or no memory. */
static int fork_used(scheduler *s, served_job *j, int n_kept, const kept_session *spared)
{
    int n = n_kept;
    kept_session *from = best_used(s, &j->work.prompt, &n);
    g4_session *fork = NULL;
    if (from == NULL || n < MIN_COMMON || g4_batch_fork(s->batch, &fork, from->session, n, NULL) != G4_OK) return 0;
    kept_session *k = g4_session_n(fork) > n_kept && g4_session_n(fork) >= MIN_COMMON ? free_place(s, spared) : NULL;
    if (k == NULL) {
        g4_session_close(fork);
        return 0;
    }
    j->placed = "forked";
    j->n_common = g4_session_n(fork);
    j->n_held = g4_session_n(from->session);
    k->session = fork;
    atomic_fetch_add(&s->n_kept, 1);
    j->session = k;
    return 1;
}

/* Where the job begins; j->session is NULL after a failure, which is its status. */
static g4_status place_job(scheduler *s, served_job *j)
{
    request_work *w = &j->work;
    kept_session *best = best_kept(s, &w->prompt, &j->n_common);
    g4_status status = G4_OK;
    j->n_held = best != NULL ? g4_session_n(best->session) : 0;
    if (fork_used(s, j, j->n_common, best)) {
        /* j->session is set */
    } else if (best != NULL && 2 * j->n_common >= j->n_held) {
        j->placed = "continued";
        atomic_fetch_sub(&s->kept_bytes, best->bytes);
        best->bytes = 0;
        j->session = best;
    } else {
        const int forks = j->n_common >= MIN_COMMON;
        kept_session *k = free_place(s, best);
        j->placed = forks ? "forked" : "new";
        if (k == NULL) return request_wrong(w, G4_ERR_MEMORY, NULL, "no place for one more conversation");
        status = forks ? g4_session_fork(&k->session, best->session, &w->error)
                       : g4_session_open(&k->session, s->shop->engine, &s->shop->session, &w->error);
        if (status != G4_OK) return status;
        if (forks) best->used = ++s->clock;
        atomic_fetch_add(&s->n_kept, 1);
        j->session = k;
    }
    j->session->job = j;
    j->session->used = ++s->clock;
    return G4_OK;
}

/* The job uses its session no more: it stays for what may come. */
static void leave_session(scheduler *s, served_job *j)
{
    kept_session *k = j->session;
    if (k == NULL) return;
    j->session = NULL;
    k->job = NULL;
    k->bytes = g4_session_saved_bytes(k->session) + s->session_work;
    atomic_fetch_add(&s->kept_bytes, k->bytes);
    if (g4_session_n(k->session) == 0) drop_kept(s, k);
    keep_to_budget(s);
}

/* ---- Into the batch and out of it -------------------------------------------------------------------------------- */

static void finish(served_job *j, g4_status status, const g4_result *result, const g4_error *err)
{
    request_work *w = &j->work;
    w->status = status;
    if (err != NULL) w->error = *err;
    if (result != NULL) w->figures.result = *result;
    w->figures.prompt_seconds = seconds_now() - j->begun - w->figures.result.seconds;
    leave_session(j->scheduler, j);
    j->scheduler->n_running--;
    job_is(j, JOB_OVER);
}

static void on_text_done(void *user, g4_session *session, g4_status status, const g4_result *result,
                         const g4_error *err)
{
    (void)session;
    finish(user, status, result, err);
}

static void on_chat_done(void *user, g4_session *session, g4_status status, g4_response *response,
                         const g4_result *result, const g4_error *err)
{
    served_job *j = user;
    (void)session;
    j->work.writer.response = response;
    finish(j, status, result, err);
}

static g4_status add_text(scheduler *s, served_job *j)
{
    request_work *w = &j->work;
    g4_status status = G4_OK;
    if (w->guide.grammar != NULL) status = g4_guide_open_text(&j->guide, s->shop->engine, w->guide.grammar, &w->error);
    if (status != G4_OK) return status;
    w->generate = answer_options(&w->writer, g4_guide_constraint(j->guide), &w->sampling);
    w->generate.limits = w->limits;
    const g4_batch_request r = { .prompt = &w->prompt, .generate = &w->generate, .done = on_text_done, .user = j };
    return g4_batch_add(s->batch, j->session->session, &r, &w->error);
}

static g4_status add_chat(scheduler *s, served_job *j)
{
    request_work *w = &j->work;
    answer_open_respond(&w->writer);
    w->generate = answer_options(&w->writer, NULL, &w->sampling);
    w->generate.limits = w->limits;
    j->respond = answer_respond(&w->writer, &w->generate, &w->guide, j->streams);
    j->request = (g4_batch_respond_request) { .respond = &j->respond, .done = on_chat_done, .user = j };
    return g4_batch_respond(s->batch, j->session->session, w->chat, &j->request, &w->error);
}

/* The job goes into the batch. */
static void begin_job(scheduler *s, served_job *j)
{
    request_work *w = &j->work;
    g4_status status = place_job(s, j);
    if (status == G4_OK) status = w->chat != NULL ? add_chat(s, j) : add_text(s, j);
    if (status != G4_OK) {
        finish(j, status, NULL, NULL); /* from here on it is its connection's, and may be gone */
        return;
    }
    if (j->streams && !job_open_stream(j)) job_drop(j);
    w->writer.stream = j->stream;
}

/* It has its place among those that are answered, and begins now or when its beginning is there. */
static void start_job(scheduler *s, served_job *j)
{
    j->scheduler = s;
    j->begun = seconds_now();
    s->n_running++;
    j->work.writer.request = j->work.request;
    job_is(j, JOB_RUNS);
    if (waits_for_beginning(s, j))
        s->awaiting[s->n_awaiting++] = j;
    else
        begin_job(s, j);
}

/* Those whose beginning has been read, or is read no more, go on; and those that are wanted no more. */
static void begin_awaiting(scheduler *s)
{
    int n = 0;
    for (int i = 0; i < s->n_awaiting; i++) {
        served_job *j = s->awaiting[i];
        if (!atomic_load(&j->is_cancelled) && waits_for_beginning(s, j))
            s->awaiting[n++] = j;
        else
            begin_job(s, j);
    }
    s->n_awaiting = n;
}

/* ---- The thread -------------------------------------------------------------------------------------------------- */

/* Under the lock: the first that waits. */
static served_job *take_first(scheduler *s)
{
    served_job *j = s->first;
    s->first = j->next;
    if (s->first == NULL) s->last = NULL;
    s->n_waiting--;
    return j;
}

/* A step that fails by itself fails again: those who are in it must not wait for ever. */
static void drop_all(scheduler *s)
{
    for (int i = 0; i < MAX_KEPT; i++) {
        if (s->kept[i].job != NULL) g4_batch_remove(s->batch, s->kept[i].session);
    }
}

static void *scheduler_main(void *arg)
{
    scheduler *s = arg;
    g4_error err;
    int n_failed = 0;
    pthread_mutex_lock(&s->lock);
    while (!s->ends || s->n_running > 0) {
        while (s->first == NULL && s->n_running == 0 && !s->ends) pthread_cond_wait(&s->changed, &s->lock);
        while (s->first != NULL && s->n_running < s->n_parallel) {
            served_job *j = take_first(s);
            pthread_mutex_unlock(&s->lock);
            start_job(s, j);
            pthread_mutex_lock(&s->lock);
        }
        pthread_mutex_unlock(&s->lock);
        begin_awaiting(s);
        g4_cancel_clear(&s->hurry); /* who has gone is seen at the start of the step */
        const g4_status status = s->n_running > 0 ? g4_batch_step(s->batch, &err) : G4_OK;
        n_failed = status == G4_OK || status == G4_ERR_CANCELED ? 0 : n_failed + 1;
        if (n_failed == 1) say(DONE, "%s", err.message);
        if (n_failed > 2) drop_all(s);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

int scheduler_add(scheduler *s, served_job *j)
{
    pthread_mutex_lock(&s->lock);
    const int has_room = s->n_waiting < s->max_waiting || (s->n_waiting == 0 && s->n_running < s->n_parallel);
    if (has_room) {
        j->state = JOB_WAITS;
        j->added = seconds_now();
        j->next = NULL;
        if (s->last != NULL)
            s->last->next = j;
        else
            s->first = j;
        s->last = j;
        s->n_waiting++;
        pthread_cond_signal(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return has_room;
}

/* Take it out of the queue, if it is there. */
static int unqueue(scheduler *s, const served_job *j)
{
    served_job **at = &s->first, *before = NULL;
    while (*at != NULL && *at != j) {
        before = *at;
        at = &(*at)->next;
    }
    if (*at == NULL) return 0;
    *at = j->next;
    if (s->last == j) s->last = before;
    s->n_waiting--;
    return 1;
}

void scheduler_cancel(scheduler *s, served_job *j)
{
    g4_cancel_set(&j->gone);
    atomic_store(&j->is_cancelled, 1);
    pthread_mutex_lock(&s->lock);
    const int waited = unqueue(s, j);
    if (!waited && s->n_running == 1) g4_cancel_set(&s->hurry); /* others would lose what this step has computed */
    pthread_mutex_unlock(&s->lock);
    if (!waited) return;
    request_wrong(&j->work, G4_ERR_CANCELED, NULL, "cancelled before it began");
    job_is(j, JOB_OVER);
}

void scheduler_counts(scheduler *s, int *n_waiting, int *n_running)
{
    pthread_mutex_lock(&s->lock);
    *n_waiting = s->n_waiting;
    *n_running = s->n_running;
    pthread_mutex_unlock(&s->lock);
}

int scheduler_start(scheduler *s, request_shop *shop, int n_parallel, int max_waiting)
{
    g4_memory_plan plan;
    g4_error err;
    s->shop = shop;
    s->n_parallel = n_parallel;
    s->max_waiting = max_waiting;
    g4_session_plan(shop->engine, &shop->session, &plan);
    s->session_work = plan.work;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    const g4_batch_options opt = { .limits = { .cancel = &s->hurry } };
    if (g4_batch_open(&s->batch, shop->engine, &opt, &err) != G4_OK) return report(&err);
    s->started = pthread_create(&s->thread, NULL, scheduler_main, s) == 0;
    return s->started ? DONE : say(FAILED, "cannot start a thread");
}

void scheduler_end(scheduler *s)
{
    if (s->started) {
        pthread_mutex_lock(&s->lock);
        s->ends = 1;
        pthread_cond_signal(&s->changed);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    g4_batch_close(s->batch);
    for (int i = 0; i < MAX_KEPT; i++) g4_session_close(s->kept[i].session);
}
