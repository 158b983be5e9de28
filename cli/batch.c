/* batch.c - gemma4 batch: a file of requests becomes a file of answers, several at a time in one read of the weights.
 * Which lines are answered when, how many fit into memory, and what the user is told meanwhile. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const arguments *args;
    batch_shop shop;
    model_loader loader;
    batch_lines lines;
    batch_answers answers;
    int n_parallel;
    batch_job *jobs[MAX_PARALLEL], *ahead[MAX_PARALLEL]; /* in the batch; read, oldest first */
    g4_session *idle[MAX_PARALLEL];
    int n_jobs, n_ahead, n_idle;
    size_t next; /* the line that is read next */
    size_t n_answered, n_failed;
    uint64_t prompt_tokens, reused, answer_tokens;
    double begun, told;
    int has_file; /* of answers, with a name */
    int is_shown; /* the line of progress stands on the terminal */
} batch_run;

/* ---- What the user is told ------------------------------------------------------------------------------- */

static void add_duration(buffer *b, double seconds)
{
    const unsigned long long s = (unsigned long long)seconds;
    if (s >= 3600)
        buffer_fmt(b, "%llu:%02llu:%02llu", s / 3600, s / 60 % 60, s % 60);
    else
        buffer_fmt(b, "%llu:%02llu", s / 60, s % 60);
}

static void hide_progress(batch_run *r)
{
    if (r->is_shown) fputs("\r\033[K", stderr);
    r->is_shown = 0;
}

/* How far it is, on a terminal: in one line of it, with as much of the bar as there is room for. */
static void show_progress(batch_run *r)
{
    enum { WIDTH = 24, FRAME = 3 }; /* of the bar; its brackets and a space */
    static const char full[] = "########################", none[] = "........................";
    const double interval = 0.2, now = seconds_now();
    const size_t n_now = r->n_answered + r->n_failed, n_done = n_now + r->answers.n_resumed;
    int columns, rows;
    if (r->args->quiet || now - r->told < interval || !terminal_draws(STDERR_FILENO)) return;
    r->told = now;
    terminal_size(&columns, &rows);
    buffer b = { 0 };
    buffer_fmt(&b, "%zu of %zu", n_done, r->lines.n);
    if (r->n_failed > 0) buffer_fmt(&b, ", %zu failed", r->n_failed);
    buffer_fmt(&b, ", %.1f tokens/s", per_second((double)r->answer_tokens, now - r->begun));
    if (n_now > 0) {
        buffer_str(&b, ", ");
        add_duration(&b, (now - r->begun) / (double)n_now * (double)(r->lines.n - n_done));
        buffer_str(&b, " left");
    }
    const int left = columns - 1 - FRAME - (int)b.len, width = left < WIDTH ? left : WIDTH;
    const int bar = (int)(n_done * (size_t)(width > 0 ? width : 0) / r->lines.n);
    fputs("\r", stderr);
    if (width > 0) fprintf(stderr, "[%.*s%.*s] ", bar, full, width - bar, none);
    fprintf(stderr, "%.*s\033[K", columns - 1, buffer_text(&b));
    fflush(stderr);
    buffer_free(&b);
    r->is_shown = 1;
}

/* What was done, and whether it was everything. */
static int tell_end(batch_run *r, int status)
{
    const size_t left = r->lines.n - r->n_answered - r->n_failed - r->answers.n_resumed;
    const double seconds = seconds_now() - r->begun;
    hide_progress(r);
    if (!r->args->quiet || r->n_failed > 0 || left > 0) {
        buffer b = { 0 };
        buffer_fmt(&b, "%zu answered", r->n_answered);
        if (r->n_failed > 0) buffer_fmt(&b, ", %zu failed", r->n_failed);
        if (r->answers.n_resumed > 0) buffer_fmt(&b, ", %zu were there", r->answers.n_resumed);
        if (left > 0) buffer_fmt(&b, ", %zu left", left);
        const uint64_t shared = r->shop.prefixes.n_evaluated; /* once, for all that reuse them */
        buffer_fmt(&b, "; prompts %llu tokens, %llu of them reused; answers %llu tokens, %.1f/s; ",
                   (unsigned long long)r->prompt_tokens,
                   (unsigned long long)(r->reused > shared ? r->reused - shared : 0),
                   (unsigned long long)r->answer_tokens, per_second((double)r->answer_tokens, seconds));
        add_duration(&b, seconds);
        say(DONE, "%s", buffer_text(&b));
        buffer_free(&b);
    }
    if (left > 0 && r->has_file) say(DONE, "--resume goes on with %s", r->args->output);
    return status == DONE && r->n_failed > 0 ? FAILED : status;
}

static void tell_failure(batch_run *r, const batch_job *j)
{
    enum { MAX_TOLD = 10 };
    if (r->n_failed > MAX_TOLD || r->args->quiet) return;
    hide_progress(r);
    if (r->n_failed == MAX_TOLD)
        say(DONE, "more lines have errors; they stand in the answers");
    else
        say(DONE, "%s: line %llu: %s", r->lines.name, (unsigned long long)j->line->number, j->work.error.message);
}

static void tell_loosened(void *user, const char *text)
{
    batch_run *r = user;
    hide_progress(r);
    say(DONE, "loosened: %s", text);
}

/* ---- How many fit ------------------------------------------------------------------------------------------ */

/* What n sessions need, and one more for what prompts share. */
static uint64_t bytes_needed(const g4_memory_plan *plan, int is_mapped, int n)
{
    return (is_mapped ? plan->weights : 0) + plan->shared + (uint64_t)(n + 1) * (plan->kv + plan->work);
}

static int plan_parallel(batch_run *r)
{
    enum { USUAL = 8 };
    const double gb = 1e-9;
    const arguments *a = r->args;
    const int is_mapped = !a->huge_pages && !a->no_mmap, wanted = a->parallel > 0 ? a->parallel : USUAL;
    g4_memory_plan plan;
    int n = wanted;
    g4_session_plan(r->shop.common.engine, &r->shop.common.session, &plan);
    while (n > 0 && plan.available > 0 && bytes_needed(&plan, is_mapped, n) > plan.available) n--;
    if (n < wanted && a->parallel > 0)
        return say(FAILED,
                   "--parallel %d needs %.2f GB and %.2f GB are free: %d would fit, or a shorter context (-c %d)",
                   wanted, gb * (double)bytes_needed(&plan, is_mapped, wanted), gb * (double)plan.available, n,
                   r->shop.prefixes.n_ctx / 2);
    const double more = gb * (double)bytes_needed(&plan, is_mapped, n + 1), available = gb * (double)plan.available;
    if (n == 0)
        say(DONE, "one at a time needs %.2f GB, and %.2f GB are free: it will be slow, or fail", more, available);
    else if (n < wanted && !a->quiet)
        say(DONE, "%d at a time: more need %.2f GB, and %.2f GB are free", n, more, available);
    r->n_parallel = n < 1 ? 1 : r->lines.n < (size_t)n ? (int)r->lines.n : n;
    return DONE;
}

/* ---- Lines come and go --------------------------------------------------------------------------------------- */

static void count_job(batch_run *r, const batch_job *j)
{
    if (j->work.status == G4_OK) {
        r->n_answered++;
        r->prompt_tokens += (uint64_t)j->work.figures.prompt_tokens;
        r->reused += (uint64_t)j->work.figures.reused;
        r->answer_tokens += (uint64_t)j->work.figures.result.n_tokens;
    } else {
        r->n_failed++;
        tell_failure(r, j);
    }
}

/* A job that is over becomes a line of the answers; what could not be written is left to answer. */
static int take_job(batch_run *r, batch_job *j)
{
    buffer line = { 0 };
    int status = job_answer(j, &line);
    if (status == DONE) status = batch_answers_add(&r->answers, j->line, &line);
    buffer_free(&line);
    if (status == DONE) count_job(r, j);
    g4_session *session = job_close(j);
    if (session != NULL) r->idle[r->n_idle++] = session;
    return status;
}

/* Read lines until as many wait as can be answered together: those that come next may share their beginning. */
static int read_ahead(batch_run *r)
{
    int status = DONE;
    while (status == DONE && r->n_ahead < r->n_parallel && r->next < r->lines.n && !interrupted()) {
        batch_line *l = &r->lines.lines[r->next++];
        if (l->is_answered) continue;
        batch_job *j = job_open(&r->shop, &r->lines, l);
        if (j == NULL) return FAILED;
        if (j->is_over)
            status = take_job(r, j);
        else
            r->ahead[r->n_ahead++] = j;
        show_progress(r);
    }
    return status;
}

/* Those that wait take the places that are free. */
static int start_jobs(batch_run *r)
{
    int status = read_ahead(r);
    while (status == DONE && r->n_jobs < r->n_parallel && r->n_ahead > 0 && !interrupted()) {
        batch_job *j = r->ahead[0];
        memmove(r->ahead, r->ahead + 1, (size_t)--r->n_ahead * sizeof j);
        job_start(j, r->n_idle > 0 ? r->idle[--r->n_idle] : NULL);
        r->jobs[r->n_jobs++] = j;
    }
    return status;
}

static int take_jobs(batch_run *r)
{
    int status = DONE;
    for (int i = 0; status == DONE && i < r->n_jobs;) {
        batch_job *j = r->jobs[i];
        if (!j->is_over) {
            i++;
            continue;
        }
        r->jobs[i] = r->jobs[--r->n_jobs];
        status = take_job(r, j);
    }
    return status;
}

static int answer_lines(batch_run *r)
{
    g4_error err;
    int status = DONE;
    r->begun = seconds_now();
    do {
        status = start_jobs(r);
        if (status == DONE && g4_batch_n(r->shop.batch) > 0 && g4_batch_step(r->shop.batch, &err) != G4_OK)
            status = report(&err);
        if (interrupted()) return interrupted(); /* those that were being answered are not */
        if (status == DONE) status = take_jobs(r);
        show_progress(r);
    } while (status == DONE && (r->n_jobs > 0 || r->n_ahead > 0 || r->next < r->lines.n));
    return status;
}

/* ---- The command ------------------------------------------------------------------------------------------- */

static int open_shop(batch_run *r, arguments *a)
{
    request_shop *s = &r->shop.common;
    progress_line unused;
    g4_error err;
    int status = request_shop_open(s, a);
    if (status != DONE) return status;
    s->schema = (g4_schema_options) {
        .strict = a->strict_schema, .closed = a->closed_schema, .warn = tell_loosened, .user = r
    };
    s->session = session_options(a, &unused);
    s->session.progress = NULL;
    r->shop.prefixes =
        (prefix_cache) { .engine = s->engine, .options = s->session, .n_ctx = context_size(a, &s->info) };
    status = grammar_open(&s->common, s->engine, a, &s->schema);
    if (status == DONE) status = plan_parallel(r);
    if (status != DONE) return status;
    const g4_batch_options opt = { .limits = until_interrupted() };
    return g4_batch_open(&r->shop.batch, s->engine, &opt, &err) == G4_OK ? DONE : report(&err);
}

static void close_run(batch_run *r)
{
    g4_batch_close(r->shop.batch); /* its jobs are over then */
    for (int i = 0; i < r->n_jobs; i++) g4_session_close(job_close(r->jobs[i]));
    for (int i = 0; i < r->n_ahead; i++) job_close(r->ahead[i]);
    for (int i = 0; i < r->n_idle; i++) g4_session_close(r->idle[i]);
    loader_end(&r->loader);
    batch_lines_close(&r->lines);
    shop_close(&r->shop);
}

int run_batch(arguments *a)
{
    batch_run *r = calloc(1, sizeof *r);
    if (r == NULL) return say(FAILED, "no memory for a batch");
    r->args = a;
    r->answers.fd = r->answers.part = -1;
    int status = batch_lines_open(&r->lines, a->requests);
    if (status == DONE) status = open_shop(r, a);
    if (status == DONE) status = batch_answers_open(&r->answers, &r->lines, a->output, a->resume, a->unordered);
    if (status == DONE && r->answers.n_others > 0)
        say(DONE, "%zu answers there are to lines that read differently now: they are answered again",
            r->answers.n_others);
    if (status == DONE) {
        loader_start(&r->loader, r->shop.common.engine, 0);
        r->has_file = r->answers.part_name.len > 0;
        status = batch_answers_close(&r->answers, answer_lines(r));
        status = tell_end(r, status);
    } else {
        batch_answers_close(&r->answers, status);
    }
    close_run(r);
    free(r);
    return status;
}
