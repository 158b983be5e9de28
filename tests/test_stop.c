/* Calls that are stopped: by g4_session_cancel before and during them, from other threads and from a signal handler, by
 * a deadline, while they wait for another session's pass; what they leave. And calls that must not be made: from a
 * callback of the same session, in a child made by fork(), with NULLs. */
#define _GNU_SOURCE 1 /* setitimer, nanosleep under -std=c11 */
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gemma4.h"

#include "test.h"

#define G4_MODEL "models/tiny.g4"
#ifdef __SANITIZE_THREAD__ /* which is fifty times slower */
enum { N_OLD = 150, N_PROMPT = 240, N_CTX = 2048, CUT = 100 };
#else
enum { N_OLD = 900, N_PROMPT = 1500, N_CTX = 2048, CUT = 600 };
#endif

static g4_token g4_text[N_CTX], g4_other[N_CTX]; /* they part at CUT */
static int g4_n_vocab;

static void g4_sleep(double seconds)
{
    const struct timespec t = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };
    nanosleep(&t, NULL);
}

static double g4_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static g4_session *g4_open_session(g4_engine *e, g4_limits limits)
{
    g4_session *s = NULL;
    g4_error err = { G4_OK, "" };
    g4_session_open(&s, e, &(g4_session_options) { .n_ctx = N_CTX, .limits = limits }, &err);
    G4_EXPECT(s != NULL, "%s", err.message);
    return s;
}

/* ---- Stopped from another thread ------------------------------------------------------------------ */

typedef struct {
    g4_session *s;
    double after; /* seconds */
} g4_stopper;

static void *g4_stop_later(void *arg)
{
    const g4_stopper *stopper = arg;
    g4_sleep(stopper->after);
    g4_session_cancel(stopper->s);
    return NULL;
}

typedef g4_status (*g4_long_call)(g4_session *s, g4_error *err);

static g4_status g4_eval_long(g4_session *s, g4_error *err)
{
    return g4_session_eval(s, g4_text + N_OLD, N_PROMPT - N_OLD, err);
}
static g4_status g4_sync_long(g4_session *s, g4_error *err)
{
    return g4_session_sync(s, &(g4_prompt) { .tokens = g4_other, .n = N_PROMPT }, NULL, err);
}
static g4_status g4_rewind_long(g4_session *s, g4_error *err) { return g4_session_rewind(s, N_OLD - 140, err); }
static g4_status g4_generate_long(g4_session *s, g4_error *err)
{
    return g4_session_generate(
        s, &(g4_generate_options) { .max_tokens = N_OLD / 3, .ignore_stop_ids = 1, .no_guard = 1 }, NULL, err);
}

/* The timeline is the first n tokens of a prompt, with the logits that follow them. */
static int g4_is_prefix(g4_engine *e, g4_session *s, const g4_token *prompt)
{
    const int n = g4_session_n(s);
    int same = memcmp(g4_session_tokens(s), prompt, (size_t)n * sizeof *prompt) == 0;
    g4_session *fresh = g4_open_session(e, (g4_limits) { 0 });
    if (n > 0) {
        same = same && g4_session_eval(fresh, prompt, n, NULL) == G4_OK;
        const float *a = g4_session_logits(s), *b = g4_session_logits(fresh);
        same = same && a && b && memcmp(a, b, (size_t)g4_n_vocab * sizeof *a) == 0;
    }
    g4_session_close(fresh);
    return same;
}

/* `old`: a stopped call leaves the N_OLD tokens that were there; else a prefix of what was to be. */
static void g4_test_stopped(g4_engine *e, const char *name, g4_long_call call, int old)
{
    int stopped = 0;
    double whole = 0;
    for (int trial = 0; trial < 9 || (stopped == 0 && trial < 90); trial++) {
        g4_session *s = g4_open_session(e, (g4_limits) { 0 });
        g4_error err = { G4_OK, "" };
        pthread_t thread;
        g4_stopper stopper = { s, whole * (trial % 9) / 9 };
        g4_session_eval(s, g4_text, N_OLD, NULL);
        const double start = g4_now();
        const int threaded = trial > 0 && pthread_create(&thread, NULL, g4_stop_later, &stopper) == 0;
        const g4_status st = call(s, &err);
        if (trial == 0) whole = g4_now() - start;
        if (threaded) pthread_join(thread, NULL);
        if (st == G4_ERR_CANCELED) {
            stopped++;
            G4_EXPECT(strstr(err.message, "cancelled") != NULL, "%s: %s", name, err.message);
        } else {
            G4_EXPECT(st == G4_OK, "%s: %s", name, err.message);
            if (threaded) g4_session_mark(s, NULL); /* a cancel behind the call ends this one; one with its end, none */
        }
        if (st == G4_ERR_CANCELED && old) G4_EXPECT(g4_session_n(s) == N_OLD, "%s: %d tokens", name, g4_session_n(s));
        if (st == G4_ERR_CANCELED && call != g4_generate_long)
            G4_EXPECT(g4_is_prefix(e, s, call == g4_sync_long && g4_session_n(s) < N_OLD ? g4_other : g4_text) ||
                          g4_is_prefix(e, s, g4_other),
                      "%s: %d tokens that are no prefix", name, g4_session_n(s));
        G4_EXPECT(g4_session_n(s) == N_CTX || g4_session_eval(s, g4_text, 1, &err) == G4_OK, "%s, afterwards: %s", name,
                  err.message);
        g4_session_close(s);
    }
    G4_EXPECT(stopped > 0, "%s was never stopped", name);
}

static void g4_test_before(g4_engine *e)
{
    g4_session *s = g4_open_session(e, (g4_limits) { 0 });
    g4_error err;
    g4_session_eval(s, g4_text, 20, NULL);
    g4_session_cancel(s);
    G4_EXPECT(g4_session_eval(s, g4_text, 20, &err) == G4_ERR_CANCELED && g4_session_n(s) == 20, "%d tokens",
              g4_session_n(s));
    G4_EXPECT(g4_session_eval(s, g4_text, 20, &err) == G4_OK, "the stopped call did not clear the flag: %s",
              err.message);
    g4_session_cancel(s);
    G4_EXPECT(g4_session_logits(s) == NULL && g4_session_logits(s) != NULL, "logits");
    g4_cancel flag = { 0 };
    g4_session *f = g4_open_session(e, (g4_limits) { .cancel = &flag });
    g4_cancel_set(&flag);
    for (int i = 0; i < 2; i++)
        G4_EXPECT(g4_session_eval(f, g4_text, 20, &err) == G4_ERR_CANCELED, "the caller's flag: %s", err.message);
    g4_cancel_clear(&flag);
    G4_EXPECT(g4_session_eval(f, g4_text, 20, &err) == G4_OK, "the caller's flag, cleared: %s", err.message);
    g4_session_close(f);
    g4_session_close(s);
}

/* ---- Deadlines ------------------------------------------------------------------------------------ */

static void g4_test_deadline(g4_engine *e)
{
    g4_session *s = g4_open_session(e, (g4_limits) { .seconds = 0.003 });
    g4_error err = { G4_OK, "" };
    G4_EXPECT(g4_session_eval(s, g4_text, N_PROMPT, &err) == G4_ERR_CANCELED && strstr(err.message, "0.003 seconds"),
              "a deadline: %s", err.message);
    G4_EXPECT(g4_session_n(s) == 0, "%d tokens", g4_session_n(s));
    int reused = -1;
    G4_EXPECT(g4_session_sync(s, &(g4_prompt) { .tokens = g4_text, .n = N_PROMPT }, &reused, &err) == G4_ERR_CANCELED &&
                  reused == 0 && g4_session_n(s) < N_PROMPT,
              "sync: %d reused, %d there", reused, g4_session_n(s));
    g4_session_close(s);
    s = g4_open_session(e, (g4_limits) { 0 });
    g4_result result;
    g4_session_eval(s, g4_text, 20, NULL);
    const g4_generate_options opt = {
        .max_tokens = 1500, .ignore_stop_ids = 1, .no_guard = 1, .limits = { .seconds = 0.02 }
    };
    G4_EXPECT(g4_session_generate(s, &opt, &result, &err) == G4_ERR_CANCELED &&
                  g4_session_n(s) == 20 + result.n_tokens && result.n_tokens < 1500 && result.stop == G4_STOP_CANCELED,
              "generate: %d tokens said, %d there: %s", result.n_tokens, g4_session_n(s) - 20, err.message);
    g4_session_close(s);
}

/* Seconds that are over already, or are no number, are a deadline and not its absence. */
static void g4_test_late(g4_engine *e)
{
    static const double late[] = { -0.5, -1e-300, NAN, -INFINITY };
    for (size_t i = 0; i < sizeof late / sizeof *late; i++) {
        g4_session *s = g4_open_session(e, (g4_limits) { .seconds = late[i] });
        G4_EXPECT(g4_session_eval(s, g4_text, 5, NULL) == G4_ERR_CANCELED && g4_session_n(s) == 0, "%g seconds",
                  late[i]);
        g4_session_close(s);
    }
    g4_cancel flag = { 0 };
    g4_cancel_set(&flag);
    g4_engine_options opt = { .model_path = G4_MODEL, .n_threads = 1, .limits = { .cancel = &flag } };
    g4_engine *made = NULL;
    G4_EXPECT(g4_engine_open(&made, &opt, NULL) == G4_ERR_CANCELED && made == NULL, "opened though it was cancelled");
    opt.limits = (g4_limits) { .seconds = 1e-9 };
    G4_EXPECT(g4_engine_open(&made, &opt, NULL) == G4_ERR_CANCELED && made == NULL, "opened though it was late");
}

/* A call that was stopped by its own last callback, after its work was done: the flag was for that call. */
static int g4_cancel_at_end(void *user, uint64_t done, uint64_t total)
{
    if (done == total) g4_session_cancel(*(g4_session **)user);
    return 0;
}

static void g4_test_too_late(g4_engine *e)
{
    g4_session *s = NULL;
    g4_error err = { G4_OK, "" };
    g4_session_open(&s, e, &(g4_session_options) { .n_ctx = 64, .progress = g4_cancel_at_end, .user = &s }, NULL);
    g4_session_eval(s, g4_text, 20, NULL);
    G4_EXPECT(g4_session_rewind(s, 0, &err) == G4_OK, "the call behind the one that was cancelled: %s", err.message);
    g4_session_close(s);
}

/* ---- Waiting for the engine ------------------------------------------------------------------------ */

typedef struct {
    g4_engine *e;
    g4_status status;
    atomic_int begun;
} g4_busy;

static int g4_note_begun(void *user, uint64_t done, uint64_t total)
{
    atomic_store(&((g4_busy *)user)->begun, 1);
    return done > total;
}

static void *g4_eval_forever(void *arg)
{
    g4_busy *busy = arg;
    g4_session *s = NULL;
    const g4_session_options so = { .n_ctx = N_CTX, .chunk = 512, .progress = g4_note_begun, .user = busy };
    busy->status = g4_session_open(&s, busy->e, &so, NULL);
    for (int i = 0; i < 3 && !busy->status; i++) {
        busy->status = g4_session_eval(s, g4_text, N_PROMPT, NULL);
        g4_session_rewind(s, 0, NULL);
    }
    g4_session_close(s);
    return NULL;
}

static void g4_test_waiting(g4_engine *e)
{
    g4_busy busy = { e, G4_OK, 0 };
    g4_session *s = g4_open_session(e, (g4_limits) { .seconds = 1e-4 });
    pthread_t thread;
    if (pthread_create(&thread, NULL, g4_eval_forever, &busy)) return;
    while (!atomic_load(&busy.begun)) g4_sleep(1e-4);
    for (int i = 0; i < 5; i++)
        G4_EXPECT(g4_session_eval(s, g4_text, 200, NULL) == G4_ERR_CANCELED && g4_session_n(s) == 0, "a waiter");
    pthread_join(thread, NULL);
    G4_EXPECT(busy.status == G4_OK, "the other session: %d", busy.status);
    g4_session_close(s);
}

/* ---- Signals ---------------------------------------------------------------------------------------- */

static g4_session *g4_signalled;
static void g4_on_alarm(int signal)
{
    if (signal == SIGALRM) g4_session_cancel(g4_signalled);
}

static void g4_test_signal(g4_engine *e)
{
    g4_signalled = g4_open_session(e, (g4_limits) { 0 });
    struct sigaction on = { .sa_handler = g4_on_alarm }, old;
    const struct itimerval soon = { .it_value = { 0, 5000 } };
    g4_error err = { G4_OK, "" };
    g4_status st = G4_OK;
    sigaction(SIGALRM, &on, &old);
    setitimer(ITIMER_REAL, &soon, NULL);
    for (int i = 0; i < 200 && !st; i++) { /* 5 ms at least */
        st = g4_session_eval(g4_signalled, g4_text, N_PROMPT, &err);
        if (!st) st = g4_session_rewind(g4_signalled, 0, &err);
    }
    sigaction(SIGALRM, &old, NULL);
    G4_EXPECT(st == G4_ERR_CANCELED, "a signal: %s", err.message);
    g4_session_close(g4_signalled);
}

/* ---- Callbacks that call back ------------------------------------------------------------------------ */

typedef struct {
    g4_engine *e;
    g4_session *s, *other;
    int calls, refused, others;
} g4_caller;

/* Everything that may not be called now, and what may. */
static void g4_call_back(g4_caller *c)
{
    g4_session *made = NULL;
    g4_token ids[8];
    size_t n;
    char bytes[256];
    const g4_prompt p = { .tokens = g4_text, .n = 3 };
    c->calls++;
    c->refused += g4_session_eval(c->s, g4_text, 1, NULL) == G4_ERR_ARGUMENT &&
                  g4_session_sync(c->s, &p, NULL, NULL) == G4_ERR_ARGUMENT &&
                  g4_session_rewind(c->s, 0, NULL) == G4_ERR_ARGUMENT &&
                  g4_session_mark(c->s, NULL) == G4_ERR_ARGUMENT &&
                  g4_session_fork(&made, c->s, NULL) == G4_ERR_ARGUMENT && !made &&
                  g4_session_generate(c->s, NULL, NULL, NULL) == G4_ERR_ARGUMENT && g4_session_logits(c->s) == NULL &&
                  g4_session_n_ctx(c->s) == N_CTX;
    g4_session_close(c->s); /* does nothing */
    c->others += g4_session_rewind(c->other, 0, NULL) == G4_OK &&
                 g4_session_eval(c->other, g4_text, 3, NULL) == G4_OK && g4_session_logits(c->other) != NULL &&
                 g4_tokenize(c->e, "a b", 3, 0, ids, 8, &n, NULL) == G4_OK &&
                 g4_token_bytes(c->e, ids[0], 0, bytes) > 0 &&
                 g4_session_open(&made, c->e, &(g4_session_options) { .n_ctx = 16 }, NULL) == G4_OK;
    g4_session_close(made);
}

static int g4_back_progress(void *user, uint64_t done, uint64_t total)
{
    g4_call_back(user);
    return done > total;
}
static int g4_back_row(void *user, int index, const float *logits)
{
    const float first = logits[0];
    g4_call_back(user);
    return index < 0 || logits[0] != first; /* other passes have left these logits alone */
}
static int g4_back_output(void *user, const g4_output *out)
{
    g4_call_back(user);
    return out->token < -1;
}
static int g4_back_mask(void *user, uint32_t *mask, int n_vocab)
{
    g4_call_back(user);
    return n_vocab < 0 || mask[0] == 0;
}
static void g4_back_accept(void *user, g4_token token)
{
    if (token >= 0) g4_call_back(user);
}

static void g4_test_callbacks(g4_engine *e)
{
    g4_caller c = { .e = e };
    g4_error err = { G4_OK, "" };
    const g4_session_options so = { .n_ctx = N_CTX, .chunk = 16, .progress = g4_back_progress, .user = &c };
    const g4_constraint constraint = { .mask = g4_back_mask, .accept = g4_back_accept, .user = &c };
    const g4_generate_options go = {
        .max_tokens = 3, .ignore_stop_ids = 1, .output = g4_back_output, .user = &c, .constraint = &constraint
    };
    c.other = g4_open_session(e, (g4_limits) { 0 });
    g4_session_open(&c.s, e, &so, NULL);
    G4_EXPECT(g4_session_eval(c.s, g4_text, 50, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(g4_session_eval_all(c.s, &(g4_prompt) { .tokens = g4_text, .n = 20 }, g4_back_row, &c, &err) == G4_OK,
              "%s", err.message);
    G4_EXPECT(g4_session_generate(c.s, &go, NULL, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(c.calls > 25 && c.refused == c.calls && c.others == c.calls, "%d callbacks: %d refused, %d others",
              c.calls, c.refused, c.others);
    g4_session_close(c.s);
    g4_session_close(c.other);
}

/* ---- A tap, inside a forward pass --------------------------------------------------------------------- */

typedef struct {
    g4_engine *e;
    g4_session *other;
    int calls, refused;
} g4_tapper;

static void g4_tap_computes(void *user, const g4_tap *tap)
{
    g4_tapper *t = user;
    const uint8_t pixels[3] = { 0 };
    g4_soft *soft = NULL;
    g4_error err = { G4_OK, "" };
    if (tap->layer != 1 || t->calls > 8) return;
    const int is_refused =
        g4_session_eval(t->other, g4_text, 2, &err) == G4_ERR_ARGUMENT && strstr(err.message, "tap") != NULL &&
        g4_session_n(t->other) == 3 && g4_session_logits(t->other) == NULL &&
        g4_image_encode(&soft, t->e, &(g4_image) { .pixels = pixels, .width = 1, .height = 1 }, NULL) != G4_OK;
    t->calls++;
    t->refused += is_refused;
}

static void g4_test_taps(g4_engine *e)
{
    g4_tapper t = { .e = e, .other = g4_open_session(e, (g4_limits) { 0 }) };
    g4_session *s = NULL;
    g4_error err = { G4_OK, "" };
    const g4_session_options so = { .n_ctx = 64, .taps = &(g4_taps) { .fn = g4_tap_computes, .user = &t } };
    G4_EXPECT(!g4_session_open(&s, e, &so, &err) && !g4_session_eval(t.other, g4_text, 3, &err), "%s", err.message);
    G4_EXPECT(g4_session_eval(s, g4_text, 5, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(t.calls > 3 && t.refused == t.calls, "%d calls from a tap, %d refused", t.calls, t.refused);
    G4_EXPECT(g4_session_eval(t.other, g4_text, 2, &err) == G4_OK && g4_session_logits(t.other), "%s", err.message);
    g4_session_close(t.other);
    g4_session_close(s);
}

/* ---- fork() ------------------------------------------------------------------------------------------- */

#ifndef __SANITIZE_THREAD__
static int g4_in_child(g4_engine *e, g4_session *s)
{
    g4_session *made = NULL;
    g4_error err = { G4_OK, "" };
    const uint8_t pixels[3] = { 0 };
    g4_soft *soft = NULL;
    const int ok =
        g4_session_eval(s, g4_text, 5, &err) == G4_ERR_ARGUMENT && strstr(err.message, "fork()") &&
        g4_session_open(&made, e, NULL, &err) == G4_ERR_ARGUMENT &&
        g4_session_fork(&made, s, &err) == G4_ERR_ARGUMENT && g4_session_logits(s) == NULL &&
        g4_image_encode(&soft, e, &(g4_image) { .pixels = pixels, .width = 1, .height = 1 }, &err) == G4_ERR_ARGUMENT;
    g4_session_close(s);
    g4_engine_close(e);
    return ok;
}

static void g4_test_fork(void)
{
    g4_engine *e = NULL;
    g4_session *s = NULL;
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = G4_MODEL, .n_threads = 2 }, NULL)) return;
    s = g4_open_session(e, (g4_limits) { 0 });
    g4_session_eval(s, g4_text, 5, NULL);
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        alarm(20);
        _exit(g4_in_child(e, s) ? 0 : 1);
    }
    int status = -1;
    G4_EXPECT(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0,
              "the child ended with %x", (unsigned)status);
    G4_EXPECT(g4_session_eval(s, g4_text, 5, NULL) == G4_OK, "the parent goes on");
    g4_session_close(s);
    g4_engine_close(e);
}

#endif

/* ---- NULLs --------------------------------------------------------------------------------------------- */

#define G4_REFUSES(call)                                                                                               \
    do {                                                                                                               \
        g4_error why = { G4_OK, "" };                                                                                  \
        const g4_status got = call;                                                                                    \
        G4_EXPECT(got == G4_ERR_ARGUMENT && why.message[0] != 0, #call ": %d %s", got, why.message);                   \
    } while (0)

static int g4_never(void *user, int index, const float *logits) { return user && index && logits; }
static int g4_no_write(void *user, const void *data, size_t size) { return user && data && size; }
static int g4_no_read(void *user, void *data, size_t size) { return user || data || size; }

static void g4_test_nulls(g4_engine *e)
{
    g4_session *s = g4_open_session(e, (g4_limits) { 0 }), *made = NULL;
    g4_engine *opened = NULL;
    g4_soft *soft = NULL;
    g4_token ids[4];
    size_t n;
    const g4_prompt p = { .tokens = g4_text, .n = 3 };
    G4_REFUSES(g4_engine_open(NULL, &(g4_engine_options) { .model_path = G4_MODEL }, &why));
    G4_REFUSES(g4_engine_open(&opened, NULL, &why));
    G4_REFUSES(g4_engine_prefault(NULL, NULL, NULL, &why));
    char out[8];
    G4_EXPECT(g4_utf8_push(NULL, "a", 1, out) == 0 && g4_utf8_push(&(g4_utf8) { .n_held = 0 }, "a", 1, NULL) == 0,
              "NULL to g4_utf8_push");
    G4_REFUSES(g4_tokenize(NULL, "a", 1, 0, ids, 4, &n, &why));
    G4_REFUSES(g4_tokenize(e, NULL, 1, 0, ids, 4, &n, &why));
    G4_REFUSES(g4_tokenize(e, "a", 1, 0, NULL, 4, &n, &why));
    G4_REFUSES(g4_tokenize(e, "a", 1, 0, ids, 4, NULL, &why));
    G4_REFUSES(g4_session_open(NULL, e, NULL, &why));
    G4_REFUSES(g4_session_open(&made, NULL, NULL, &why));
    G4_REFUSES(g4_session_open(&made, e, &(g4_session_options) { .n_ctx = -1 }, &why));
    G4_REFUSES(g4_session_open(&made, e, &(g4_session_options) { .chunk = -1 }, &why));
    G4_REFUSES(g4_session_open(&made, e, &(g4_session_options) { .kv = (g4_kv_choice)9 }, &why));
    G4_REFUSES(g4_session_eval(NULL, g4_text, 1, &why));
    G4_REFUSES(g4_session_eval(s, NULL, 1, &why));
    G4_REFUSES(g4_session_eval(s, g4_text, -1, &why));
    G4_REFUSES(g4_session_eval_prompt(NULL, &p, &why));
    G4_REFUSES(g4_session_eval_prompt(s, NULL, &why));
    G4_REFUSES(g4_session_eval_text(NULL, "a", 1, &why));
    G4_REFUSES(g4_session_eval_text(s, NULL, 1, &why));
    G4_REFUSES(g4_session_eval_all(NULL, &p, g4_never, NULL, &why));
    G4_REFUSES(g4_session_eval_all(s, NULL, g4_never, NULL, &why));
    G4_REFUSES(g4_session_eval_all(s, &p, NULL, NULL, &why));
    G4_REFUSES(g4_session_sync(NULL, &p, NULL, &why));
    G4_REFUSES(g4_session_sync(s, NULL, NULL, &why));
    G4_REFUSES(g4_session_rewind(NULL, 0, &why));
    G4_REFUSES(g4_session_mark(NULL, &why));
    G4_REFUSES(g4_session_fork(NULL, s, &why));
    G4_REFUSES(g4_session_fork(&made, NULL, &why));
    G4_REFUSES(g4_session_save(NULL, g4_no_write, NULL, &why));
    G4_REFUSES(g4_session_save(s, NULL, NULL, &why));
    G4_REFUSES(g4_session_load(NULL, e, NULL, g4_no_read, NULL, &why));
    G4_REFUSES(g4_session_load(&made, NULL, NULL, g4_no_read, NULL, &why));
    G4_REFUSES(g4_session_load(&made, e, NULL, NULL, NULL, &why));
    G4_REFUSES(g4_session_generate(NULL, NULL, NULL, &why));
    G4_REFUSES(g4_session_generate(s, NULL, NULL, &why)); /* nothing to continue */
    g4_session_eval(s, g4_text, 5, NULL);
    G4_REFUSES(g4_session_generate(s, &(g4_generate_options) { .max_tokens = -1 }, NULL, &why));
    G4_REFUSES(g4_session_generate(s, &(g4_generate_options) { .n_stop = 1 }, NULL, &why));
    G4_REFUSES(g4_session_generate(s, &(g4_generate_options) { .n_stop = -1 }, NULL, &why));
    G4_REFUSES(g4_session_generate(s, &(g4_generate_options) { .n_stop = 1, .stop = (const char *const[]) { NULL } },
                                   NULL, &why));
    G4_REFUSES(
        g4_session_generate(s, &(g4_generate_options) { .sampling = &(g4_sampling) { .n_bias = 1 } }, NULL, &why));
    G4_REFUSES(
        g4_session_generate(s, &(g4_generate_options) { .sampling = &(g4_sampling) { .n_bias = -1 } }, NULL, &why));
    G4_REFUSES(
        g4_session_generate(s, &(g4_generate_options) { .constraint = &(g4_constraint) { .mask = NULL } }, NULL, &why));
    G4_REFUSES(g4_session_choose(NULL, NULL, ids, &why));
    G4_REFUSES(g4_session_choose(s, NULL, NULL, &why));
    G4_REFUSES(g4_session_choose(s, &(g4_choose_options) { .reply_start = 99 }, ids, &why));
    G4_REFUSES(g4_image_encode(NULL, e, &(g4_image) { .width = 1 }, &why));
    G4_REFUSES(g4_image_encode(&soft, NULL, NULL, &why));
    G4_REFUSES(g4_audio_encode(&soft, NULL, NULL, &why));
    G4_REFUSES(g4_frame_encode(&soft, NULL, NULL, &why));
    G4_EXPECT(!made && !opened && !soft, "an object was made");

    uint64_t a = 1, b = 1;
    g4_memory_plan plan;
    g4_engine_info info = { .n_layers = 1 };
    g4_sampling sampling = { .top_k = 1 };
    g4_tensor_info tensor;
    g4_engine_residence(NULL, &a, &b);
    g4_engine_residence(e, NULL, NULL);
    g4_engine_get_info(NULL, &info);
    g4_engine_get_info(e, NULL);
    g4_session_plan(NULL, NULL, &plan);
    g4_session_plan(e, NULL, NULL);
    g4_session_plan(e, &(g4_session_options) { .n_ctx = -1 }, &plan);
    g4_sampling_recommended(NULL, &sampling);
    g4_sampling_recommended(e, NULL);
    g4_session_cancel(NULL);
    g4_cancel_set(NULL);
    g4_cancel_clear(NULL);
    g4_session_close(NULL);
    g4_engine_close(NULL);
    g4_soft_close(NULL, NULL);
    G4_EXPECT(a == 0 && b == 0 && info.n_layers == 0 && sampling.top_k == 0, "what NULL tells");
    G4_EXPECT(g4_session_n(NULL) == 0 && g4_session_n_ctx(NULL) == 0 && !g4_session_tokens(NULL) &&
                  !g4_session_logits(NULL) && g4_session_n_evaluated(NULL) == 0 && g4_session_bytes(NULL, NULL) == 0 &&
                  g4_token_bytes(NULL, 1, 0, NULL) == 0 && !g4_engine_get_tensor(NULL, 0, &tensor) &&
                  !g4_engine_get_tensor(e, 0, NULL) && g4_soft_n(NULL) == 0 && g4_session_saved_bytes(NULL) == 0 &&
                  g4_token_get_kind(NULL, 1) == G4_TOKEN_UNUSED && !g4_token_is_stop(NULL, 1) &&
                  g4_logits_argmax(e, NULL) == -1 && g4_logits_top(NULL, NULL, 1, NULL) == 0,
              "what functions without a status say of NULL");
    g4_session_close(s);
}

int main(void)
{
    g4_engine *e = NULL;
    g4_error err = { G4_OK, "" };
    g4_engine_info info = { .n_vocab = 1 };
    G4_EXPECT(!g4_engine_open(&e, &(g4_engine_options) { .model_path = G4_MODEL, .n_threads = 2 }, &err), "%s",
              err.message);
    if (!e) return g4_test_end();
    g4_engine_get_info(e, &info);
    g4_n_vocab = info.n_vocab;
    for (int i = 0; i < N_CTX; i++) {
        g4_text[i] = 100 + i * 7 % 300;
        g4_other[i] = i < CUT ? g4_text[i] : 100 + i * 11 % 300;
    }
    g4_test_before(e);
    g4_test_stopped(e, "eval", g4_eval_long, 1);
    g4_test_stopped(e, "sync", g4_sync_long, 0);
    g4_test_stopped(e, "rewind", g4_rewind_long, 1);
    g4_test_stopped(e, "generate", g4_generate_long, 0);
    g4_test_deadline(e);
    g4_test_late(e);
    g4_test_too_late(e);
    g4_test_waiting(e);
    g4_test_signal(e);
    g4_test_callbacks(e);
    g4_test_taps(e);
    g4_test_nulls(e);
    g4_engine_close(e);
#ifndef __SANITIZE_THREAD__ /* which ends children of processes that have threads */
    g4_test_fork();
#endif
    return g4_test_end();
}
