/* bench.c - speed: how fast a model reads prompts of given lengths and how fast it answers behind them, beside what
 * this machine's memory gives. Each figure is the median of several runs. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* ---- The machine -------------------------------------------------------------------------------- */

/* The CPU's name in /proc/cpuinfo; empty where there is none. */
static void cpu_name(char *out, size_t cap)
{
    static const char field[] = "model name";
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    out[0] = '\0';
    while (f != NULL && out[0] == '\0' && fgets(line, sizeof line, f) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, field, sizeof field - 1) != 0 || colon == NULL) continue;
        colon += 1 + strspn(colon + 1, " ");
        snprintf(out, cap, "%.*s", (int)strcspn(colon, "\n"), colon);
    }
    if (f != NULL) fclose(f);
}

/* Read bandwidth of this machine: each thread sums its part of a block far larger than the caches. */
typedef struct {
    const uint64_t *data;
    size_t n;
    uint64_t sum;
} block_part;

static void *sum_part(void *arg)
{
    block_part *p = arg;
    uint64_t s[16] = { 0 }; /* two cache lines at a time, as many independent sums */
    for (size_t i = 0; i + 16 <= p->n; i += 16)
        for (size_t k = 0; k < 16; k++) s[k] += p->data[i + k];
    for (size_t k = 0; k < 16; k++) p->sum += s[k];
    return NULL;
}

/* Sum n parts on as many threads, or on those that start; returns how many parts were read. */
static size_t sum_parts(block_part *parts, pthread_t *threads, size_t n)
{
    size_t started = 1;
    while (started < n && pthread_create(&threads[started], NULL, sum_part, &parts[started]) == 0) started++;
    sum_part(&parts[0]);
    for (size_t i = 1; i < started; i++) pthread_join(threads[i], NULL);
    return started;
}

/* GB/s, the best of five rounds over 512 MB; 0 when that cannot be had. */
static double read_bandwidth(int n_threads)
{
    enum { ROUNDS = 5, MAX_PARTS = 256, CACHE_LINE = 64 };
    const size_t words = (size_t)64 << 20, n = n_threads < MAX_PARTS ? (size_t)n_threads : MAX_PARTS, share = words / n;
    uint64_t *data = aligned_alloc(CACHE_LINE, words * sizeof *data), sum = 0;
    block_part parts[MAX_PARTS];
    pthread_t threads[MAX_PARTS];
    double best = 0;
    if (data == NULL) return 0;
    for (size_t i = 0; i < words; i++) data[i] = i;
    for (int round = 0; round < ROUNDS; round++) {
        double start = seconds_now();
        for (size_t i = 0; i < n; i++) parts[i] = (block_part) { data + i * share, share, 0 };
        size_t n_read = sum_parts(parts, threads, n);
        double rate = (double)(n_read * share * sizeof *data) / (seconds_now() - start) * 1e-9;
        for (size_t i = 0; i < n_read; i++) sum += parts[i].sum;
        if (rate > best) best = rate;
    }
    free(data);
    return sum == 1 ? 0 : best; /* never 1: keeps the sums */
}

/* ---- One length ------------------------------------------------------------------------------------ */

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, compare_doubles);
    return n % 2 != 0 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

typedef struct {
    g4_session *session;
    g4_engine_info info;
    const char *cpu;
    double bandwidth;         /* of memory, GB/s; 0: unknown */
    g4_token *ids;            /* (longest length) */
    int runs, n_answer;       /* n_answer: tokens that are decoded behind each length, by each answer */
    int n_parallel;           /* answers at a time */
    g4_batch *batch;          /* of more than one */
    double experts_read;      /* of a layer, by a step that all answers share */
    uint64_t expert_bytes;    /* of one expert of every layer */
    double *prefill, *decode; /* (runs): tokens/s */
} speed_test;

typedef struct {
    int n_tokens;
    g4_error err; /* code G4_OK: none */
} batch_total;

static void add_answer(void *user, g4_session *s, g4_status status, const g4_result *result, const g4_error *err)
{
    batch_total *total = user;
    (void)s;
    if (status != G4_OK) total->err = *err;
    total->n_tokens += result->n_tokens;
}

/* A token for answer i alone, so that no two of them go the same way and choose the same experts. */
static g4_token own_token(const speed_test *b, int i) { return (g4_token)((7 * i + 1000) % b->info.n_vocab); }

/* The session and its forks, each with a token of its own behind the prompt. */
static int open_forks(speed_test *b, g4_session **forks)
{
    g4_error err;
    g4_status status = G4_OK;
    forks[0] = b->session;
    for (int i = 1; status == G4_OK && i < b->n_parallel; i++) status = g4_session_fork(&forks[i], b->session, &err);
    for (int i = 0; status == G4_OK && i < b->n_parallel; i++) {
        const g4_token own = own_token(b, i);
        status = g4_session_eval(forks[i], &own, 1, &err);
    }
    return status == G4_OK ? DONE : report(&err);
}

/* Answer in all of them together; *n gets the tokens of all. */
static int answer_together(speed_test *b, g4_session **forks, const g4_generate_options *opt, int *n)
{
    batch_total total = { 0 };
    const g4_batch_request request = { .generate = opt, .done = add_answer, .user = &total };
    g4_error err;
    g4_status status = G4_OK;
    for (int i = 0; status == G4_OK && i < b->n_parallel; i++)
        status = g4_batch_add(b->batch, forks[i], &request, &err);
    if (status == G4_OK) status = g4_batch_run(b->batch, &err);
    *n = total.n_tokens;
    if (status != G4_OK) return report(&err);
    return total.err.code != G4_OK ? report(&total.err) : DONE;
}

static int answer_alone(speed_test *b, const g4_generate_options *opt, int *n)
{
    g4_result result;
    g4_error err;
    if (g4_session_generate(b->session, opt, &result, &err) != G4_OK) return report(&err);
    *n = result.n_tokens;
    return DONE;
}

/* One run: a prompt of that length is read and answered. */
static int time_run(speed_test *b, int length, int run)
{
    g4_sampling greedy = { 0 };
    g4_generate_options opt = {
        .sampling = &greedy, .max_tokens = b->n_answer, .no_guard = 1, .ignore_stop_ids = 1, .no_lookup = 1
    };
    g4_error err;
    int n = 0;
    if (g4_session_rewind(b->session, 0, &err) != G4_OK) return report(&err);
    double start = seconds_now();
    if (g4_session_eval(b->session, b->ids, length, &err) != G4_OK) return report(&err);
    b->prefill[run] = per_second(length, seconds_now() - start);
    g4_session *forks[MAX_PARALLEL] = { NULL };
    int status = b->batch != NULL ? open_forks(b, forks) : DONE;
    start = seconds_now();
    if (status == DONE) status = b->batch != NULL ? answer_together(b, forks, &opt, &n) : answer_alone(b, &opt, &n);
    b->decode[run] = per_second(n, seconds_now() - start);
    for (int i = 1; i < b->n_parallel; i++) g4_session_close(forks[i]);
    return status == DONE ? interrupted() : status;
}

typedef struct { /* medians of one length; Gmul: 10^9 multiply-adds with weights a second */
    int length;
    double prefill, prefill_gmul, decode, decode_gmul; /* tokens/s, and what they cost */
    double decode_gb, share;                           /* GB/s of weights, of the bandwidth */
} speed;

static int time_length(speed_test *b, int length, speed *out)
{
    for (int run = 0; run < b->runs; run++) {
        int status = time_run(b, length, run);
        if (status != DONE) return status;
    }
    double prefill = median(b->prefill, b->runs), decode = median(b->decode, b->runs);
    double bytes = (double)b->info.decode_bytes; /* weights are read once for all, but for experts of others */
    if (b->n_parallel > 1) bytes += (b->experts_read - b->info.n_experts_used) * (double)b->expert_bytes;
    double gb = decode / b->n_parallel * bytes / 1e9;
    *out = (speed) { .length = length,
                     .prefill = prefill,
                     .prefill_gmul = prefill * (double)b->info.prompt_products / 1e9,
                     .decode = decode,
                     .decode_gmul = decode * (double)b->info.decode_products / 1e9,
                     .decode_gb = gb,
                     .share = b->bandwidth > 0 ? gb / b->bandwidth : 0 };
    return DONE;
}

/* ---- Experts that a step reads ------------------------------------------------------------------------ */

typedef struct { /* which experts the answers choose; they choose the same ones alone and in a batch */
    int n_layers, n_experts, first, steps; /* first: position of the first step */
    unsigned char *is_read;                /* (steps, layers, experts) */
} expert_reads;

static void note_experts(void *user, const g4_tap *tap)
{
    expert_reads *r = user;
    const int step = tap->pos - r->first;
    if (strcmp(tap->name, "router_ids") != 0 || step < 0 || step >= r->steps) return;
    unsigned char *is_read = r->is_read + (size_t)(step * r->n_layers + tap->layer) * (size_t)r->n_experts;
    for (int i = 0; i < tap->n_cols; i++) is_read[tap->ids[i]] = 1;
}

static g4_status watch_answer(g4_session *s, const speed_test *b, int i, int n_prompt, int steps, g4_error *err)
{
    g4_sampling greedy = { 0 };
    const g4_generate_options opt = { .sampling = &greedy, .max_tokens = steps, .no_guard = 1, .ignore_stop_ids = 1 };
    const g4_token own = own_token(b, i);
    g4_result result;
    g4_status st = g4_session_rewind(s, 0, err);
    if (st == G4_OK) st = g4_session_eval(s, b->ids, n_prompt, err);
    if (st == G4_OK) st = g4_session_eval(s, &own, 1, err);
    return st == G4_OK ? g4_session_generate(s, &opt, &result, err) : st;
}

static uint64_t bytes_of_expert(const g4_engine *e, int n_experts)
{
    uint64_t bytes = 0;
    g4_tensor_info t;
    for (int i = 0; g4_engine_get_tensor(e, i, &t); i++) {
        if (t.n_dims == 3 && t.dims[0] == (uint64_t)n_experts) bytes += t.bytes / t.dims[0];
    }
    return bytes;
}

/* The mean over layers and steps, of answers behind a short prompt. */
static int count_experts(speed_test *b, g4_engine *e, int longest)
{
    enum { PROMPT = 16, STEPS = 16 };
    const int n_prompt = longest < PROMPT ? longest : PROMPT;
    const size_t n = (size_t)STEPS * (size_t)b->info.n_layers * (size_t)b->info.n_experts;
    if (b->n_parallel < 2 || b->info.n_experts == 0) return DONE;
    expert_reads r = { b->info.n_layers, b->info.n_experts, n_prompt + 1, STEPS, calloc(n, 1) };
    const g4_taps taps = { .fn = note_experts, .user = &r };
    const g4_session_options opt = { .n_ctx = n_prompt + STEPS + 2, .taps = &taps, .limits = until_interrupted() };
    g4_session *s = NULL;
    g4_error err;
    size_t n_read = 0;
    if (r.is_read == NULL) return say(FAILED, "no memory for the bench");
    g4_status st = g4_session_open(&s, e, &opt, &err);
    for (int i = 0; st == G4_OK && i < b->n_parallel; i++) st = watch_answer(s, b, i, n_prompt, STEPS + 1, &err);
    for (size_t i = 0; i < n; i++) n_read += r.is_read[i];
    b->experts_read = (double)n_read / (STEPS * b->info.n_layers);
    b->expert_bytes = bytes_of_expert(e, b->info.n_experts);
    g4_session_close(s);
    free(r.is_read);
    return st == G4_OK ? DONE : report(&err);
}

/* ---- The report --------------------------------------------------------------------------------------- */

static void add_json_head(buffer *out, const speed_test *b)
{
    buffer_str(out, "{\"model\":");
    buffer_quote(out, b->info.name, strlen(b->info.name));
    buffer_str(out, ",\"cpu\":");
    buffer_quote(out, b->cpu, strlen(b->cpu));
    buffer_fmt(out,
               ",\"isa\":\"%s\",\"threads\":%d,\"bandwidth_gb_per_second\":%.3f,\"decode_bytes\":%llu,"
               "\"decode_multiply_adds\":%llu,\"prefill_multiply_adds\":%llu,\"parallel\":%d,",
               b->info.isa, b->info.n_threads, b->bandwidth, (unsigned long long)b->info.decode_bytes,
               (unsigned long long)b->info.decode_products, (unsigned long long)b->info.prompt_products, b->n_parallel);
    if (b->experts_read > 0) buffer_fmt(out, "\"experts_read\":%.3f,", b->experts_read);
    buffer_str(out, "\"runs\":[");
}

static void add_json_speed(buffer *out, const speed *s, int is_first)
{
    buffer_fmt(out,
               "%s{\"length\":%d,\"prefill_tokens_per_second\":%.3f,\"prefill_gmul_per_second\":%.3f,"
               "\"decode_tokens_per_second\":%.3f,\"decode_gb_per_second\":%.3f,"
               "\"share_of_bandwidth\":%.4f,\"decode_gmul_per_second\":%.3f}",
               is_first ? "" : ",", s->length, s->prefill, s->prefill_gmul, s->decode, s->decode_gb, s->share,
               s->decode_gmul);
}

static void add_table_head(buffer *out, const speed_test *b)
{
    buffer_fmt(out, "%s on %s, %s, %d threads, memory read at %.1f GB/s\n", b->info.name,
               b->cpu[0] ? b->cpu : "an unnamed CPU", b->info.isa, b->info.n_threads, b->bandwidth);
    buffer_fmt(out, "median of %d; decode: %d tokens behind each length", b->runs, b->n_answer);
    if (b->n_parallel > 1) buffer_fmt(out, ", of each of %d answers at a time", b->n_parallel);
    buffer_str(out, "; Gmul: 10^9 multiply-adds with weights\n");
    if (b->experts_read > 0)
        buffer_fmt(out, "a step of %d answers reads %.1f of %d experts, of one answer %d\n", b->n_parallel,
                   b->experts_read, b->info.n_experts, b->info.n_experts_used);
    buffer_str(out, "          prefill              decode\n"
                    "  length   tokens/s   Gmul/s   tokens/s     GB/s   of memory   Gmul/s\n");
}

/* Weights that stay in the caches can be faster than memory: a share above 1 is none of it. */
static void add_table_row(buffer *out, const speed *s)
{
    char share[16];
    snprintf(share, sizeof share, "%s%.0f", s->share > 1 ? ">" : "", s->share > 1 ? 100.0 : 100 * s->share);
    buffer_fmt(out, "%8d   %8.1f   %6.1f   %8.1f   %6.2f   %7s %%   %6.1f\n", s->length, s->prefill, s->prefill_gmul,
               s->decode, s->decode_gb, share, s->decode_gmul);
}

static void add_table_foot(buffer *out, int is_cached)
{
    if (is_cached) buffer_str(out, ">100 %: weights came from the CPU's caches, not from memory\n");
}

static int print_speeds(speed_test *b, const int *lengths, int n_lengths, int json)
{
    buffer out = { 0 };
    int status = DONE, is_cached = 0;
    if (json)
        add_json_head(&out, b);
    else
        add_table_head(&out, b);
    for (int i = 0; status == DONE && i < n_lengths; i++) {
        speed s;
        status = time_length(b, lengths[i], &s);
        if (status != DONE) break;
        is_cached |= s.share > 1;
        if (json)
            add_json_speed(&out, &s, i == 0);
        else
            add_table_row(&out, &s);
    }
    if (json)
        buffer_str(&out, "]}\n");
    else
        add_table_foot(&out, is_cached);
    if (status == DONE) status = print_buffer(&out);
    buffer_free(&out);
    return status;
}

/* ---- The command ---------------------------------------------------------------------------------------- */

/* Numbers of a list such as 128,512. Returns how many, 0 when the list is wrong. */
static int parse_lengths(const char *text, int *out, int cap)
{
    int n = 0;
    for (;;) {
        char *end;
        long x = strtol(text, &end, 10);
        if (end == text || x < 1 || x > 1 << 20 || n == cap) return 0;
        out[n++] = (int)x;
        if (*end == '\0') return n;
        if (*end != ',') return 0;
        text = end + 1;
    }
}

/* Of the lengths that nobody has asked for, those that the context has room for behind the answer; at least one. */
static int drop_too_long(int *lengths, int n, int room)
{
    int n_kept = 0;
    for (int i = 0; i < n; i++) {
        if (lengths[i] <= room || (i == n - 1 && n_kept == 0)) lengths[n_kept++] = lengths[i];
    }
    return n_kept;
}

static int batch_open(speed_test *b, g4_engine *e)
{
    g4_error err;
    if (b->n_parallel < 2) return DONE;
    return g4_batch_open(&b->batch, e, NULL, &err) == G4_OK ? DONE : report(&err);
}

/* A session for prompts up to the longest, and the prompt: ids spread over the vocabulary, the same in every run. */
static int speed_test_open(speed_test *b, g4_engine *e, const arguments *a, progress_line *progress, int longest)
{
    g4_error err;
    g4_session_options setup = session_options(a, progress);
    progress->enabled = 0;
    if (setup.n_ctx == 0) setup.n_ctx = longest + (b->n_parallel > 1) + b->n_answer;
    if (g4_session_open(&b->session, e, &setup, &err) != G4_OK) return report(&err);
    b->ids = calloc((size_t)longest, sizeof *b->ids);
    b->prefill = calloc((size_t)b->runs, sizeof *b->prefill);
    b->decode = calloc((size_t)b->runs, sizeof *b->decode);
    if (b->ids == NULL || b->prefill == NULL || b->decode == NULL) return say(FAILED, "no memory for the bench");
    for (int i = 0; i < longest; i++) {
        b->ids[i] = (g4_token)(((uint64_t)i * 2654435761u + 12345u) % (uint64_t)b->info.n_vocab);
    }
    return DONE;
}

int run_bench(arguments *a)
{
    enum { MAX_LENGTHS = 32 };
    g4_engine *e = NULL;
    speed_test b = { .runs = a->repeat > 0 ? a->repeat : 3,
                     .n_answer = a->max_tokens > 0 ? a->max_tokens : 64,
                     .n_parallel = a->parallel > 0 ? a->parallel : 1 };
    progress_line progress;
    int lengths[MAX_LENGTHS], longest = 0;
    int n_lengths = parse_lengths(a->lengths != NULL ? a->lengths : "128,512,2048,8192", lengths, MAX_LENGTHS);
    if (n_lengths == 0) return say(USAGE, "--lengths needs numbers like 128,512, not \"%s\"", a->lengths);
    int status = model_open(&e, a);
    if (status != DONE) return status;
    g4_engine_get_info(e, &b.info);
    if (a->lengths == NULL) {
        const int n_ctx = a->n_ctx > 0 ? a->n_ctx : b.info.max_ctx, n = n_lengths;
        n_lengths = drop_too_long(lengths, n_lengths, n_ctx - b.n_answer - (b.n_parallel > 1));
        if (n_lengths < n && !a->quiet)
            say(DONE, "the context of %d has no room for %d of the usual lengths: left out", n_ctx, n - n_lengths);
    }
    for (int i = 0; i < n_lengths; i++) longest = lengths[i] > longest ? lengths[i] : longest;
    char cpu[256];
    cpu_name(cpu, sizeof cpu);
    b.cpu = cpu;
    g4_engine_prefault(e, NULL, NULL, NULL); /* from memory, not from disk; a failure shows in the figures */
    b.bandwidth = read_bandwidth(b.info.n_threads);
    status = speed_test_open(&b, e, a, &progress, longest);
    if (status == DONE) status = batch_open(&b, e);
    if (status == DONE) status = count_experts(&b, e, longest);
    if (status == DONE) status = print_speeds(&b, lengths, n_lengths, a->json);
    free(b.ids);
    free(b.prefill);
    free(b.decode);
    g4_batch_close(b.batch);
    g4_session_close(b.session);
    g4_engine_close(e);
    return status;
}
