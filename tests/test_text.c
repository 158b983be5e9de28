/* test_text.c - the text decoder against transformers, and against itself in every way of evaluating the same tokens.
 *
 * tests/data/text_<member>.g4 are tiny random models of every family member (type f32, and e2b and 26b in other types),
 * made with text_<member>.ref by tests/make_data.py. A .ref is little-endian: char magic[8] "G4TEXT1\n"; uint32
 * n_tokens, n_vocab, n_greedy, n_layers, hidden; float32 margin int32 tokens[n_tokens], greedy[n_greedy]; float32
 * logits[n_tokens][n_vocab], states[n_layers + 1][hidden]
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gemma4.h"
#include "test.h"

#define MAX_LOGIT_DIFF 2e-4f  /* the reference's own float32 noise is up to 1e-4 */
#define MAX_STATE_DIFF 2e-4f  /* of a state's largest magnitude */
#define MAX_MARGIN_DIFF 4e-4f /* two logits */

static const char *const g4_members[] = { "e2b", "e4b", "26b", "31b", "gemma3" };
enum { N_MEMBERS = sizeof g4_members / sizeof *g4_members };

typedef struct {
    uint32_t n, n_vocab, n_greedy, n_layers, hidden;
    float margin;
    int32_t *tokens, *greedy;
    float *logits, *states;
} g4_ref;

static void *g4_read_array(FILE *f, size_t count, size_t size)
{
    void *p = malloc(count * size);
    if (p && fread(p, size, count, f) != count) {
        free(p);
        p = NULL;
    }
    return p;
}

static void g4_ref_free(g4_ref *r)
{
    free(r->tokens);
    free(r->greedy);
    free(r->logits);
    free(r->states);
}

static int g4_ref_load(g4_ref *r, const char *member)
{
    char path[64], magic[8];
    memset(r, 0, sizeof *r);
    snprintf(path, sizeof path, "tests/data/text_%s.ref", member);
    FILE *f = fopen(path, "rb");
    int ok = f && fread(magic, 1, 8, f) == 8 && memcmp(magic, "G4TEXT1\n", 8) == 0 && fread(&r->n, 4, 5, f) == 5 &&
             fread(&r->margin, 4, 1, f) == 1;
    if (ok) {
        r->tokens = g4_read_array(f, r->n, 4);
        r->greedy = g4_read_array(f, r->n_greedy, 4);
        r->logits = g4_read_array(f, (size_t)r->n * r->n_vocab, 4);
        r->states = g4_read_array(f, (size_t)(r->n_layers + 1) * r->hidden, 4);
        ok = r->tokens && r->greedy && r->logits && r->states && fgetc(f) == EOF;
    }
    if (f) fclose(f);
    G4_EXPECT(ok, "%s", path);
    if (!ok) g4_ref_free(r);
    return ok;
}

static g4_engine *g4_open(const char *path, int threads, const char *isa)
{
    g4_engine_options opt = { .model_path = path, .n_threads = threads, .isa = isa };
    g4_engine *e;
    g4_error err;
    if (g4_engine_open(&e, &opt, &err)) {
        G4_EXPECT(0, "%s: %s", path, err.message);
        return NULL;
    }
    return e;
}

static g4_session *g4_start(g4_engine *e, int chunk, g4_kv_choice kv)
{
    g4_session_options opt = { .n_ctx = 512, .chunk = chunk, .kv = kv };
    g4_session *s;
    g4_error err;
    if (g4_session_open(&s, e, &opt, &err)) {
        G4_EXPECT(0, "%s", err.message);
        return NULL;
    }
    return s;
}

typedef struct {
    float *rows;
    int n_vocab, n;
} g4_rows;

static int g4_keep_row(void *user, int index, const float *logits)
{
    g4_rows *r = user;
    memcpy(r->rows + (size_t)index * (size_t)r->n_vocab, logits, (size_t)r->n_vocab * sizeof *logits);
    r->n++;
    return 0;
}

/* Logits of every token, (n, n_vocab); NULL after a failure, which is counted. */
static float *g4_all_logits(g4_session *s, const int32_t *tokens, int n, int n_vocab)
{
    g4_rows r = { malloc((size_t)n * (size_t)n_vocab * sizeof(float)), n_vocab, 0 };
    g4_prompt p = { .tokens = tokens, .n = n };
    g4_error err = { G4_OK, "" };
    const g4_status status = r.rows ? g4_session_eval_all(s, &p, g4_keep_row, &r, &err) : G4_ERR_MEMORY;
    G4_EXPECT(status == G4_OK && r.n == n, "%d of %d rows: %s", r.n, n, err.message);
    if (status || r.n != n) {
        free(r.rows);
        r.rows = NULL;
    }
    return r.rows;
}

static float g4_max_diff(const float *a, const float *b, size_t n)
{
    float most = 0;
    for (size_t i = 0; i < n; i++) {
        const float d = fabsf(a[i] - b[i]);
        if (!(d <= most)) most = d; /* a NaN shows */
    }
    return most;
}

/* Mean over rows of KL(softmax(a) || softmax(b)), in nats. */
static double g4_mean_kl(const float *a, const float *b, int rows, int n)
{
    double sum = 0;
    for (int r = 0; r < rows; r++, a += n, b += n) {
        double ma = a[0], mb = b[0], za = 0, zb = 0;
        for (int i = 1; i < n; i++) ma = fmax(ma, a[i]), mb = fmax(mb, b[i]);
        for (int i = 0; i < n; i++) za += exp(a[i] - ma), zb += exp(b[i] - mb);
        for (int i = 0; i < n; i++) {
            const double la = a[i] - ma - log(za), lb = b[i] - mb - log(zb);
            sum += exp(la) * (la - lb);
        }
    }
    return sum / rows;
}

/* Are the logits of the session's last token these very bits? */
static int g4_same(g4_session *s, const float *want, int n_vocab)
{
    const float *got = g4_session_logits(s);
    return got && memcmp(got, want, (size_t)n_vocab * sizeof *got) == 0;
}

typedef struct {
    int32_t ids[64];
    int n;
    float margin; /* smallest distance of the best logit from the second */
} g4_reply;

static int g4_keep_token(void *user, const g4_output *out)
{
    g4_reply *r = user;
    if (out->token < 0) return 0; /* text that was held back */
    if (r->n < 64) r->ids[r->n++] = out->token;
    if (out->n_top == 2) r->margin = fminf(r->margin, out->top[0].logprob - out->top[1].logprob);
    return 0;
}

/* Continue the prompt as the reference did, and go back to its end. Log-probabilities need the whole head. */
static void g4_check_greedy(g4_session *s, const g4_ref *r, int want_logprobs, const char *what)
{
    g4_reply reply = { .n = 0, .margin = INFINITY };
    g4_sampling greedy = { .temperature = 0 };
    g4_generate_options opt = { .sampling = &greedy,
                                .max_tokens = (int)r->n_greedy,
                                .no_guard = 1,
                                .ignore_stop_ids = 1,
                                .want_logprobs = want_logprobs,
                                .n_top = 2,
                                .output = g4_keep_token,
                                .user = &reply };
    g4_error err = { G4_OK, "" };
    const g4_status status = g4_session_generate(s, &opt, NULL, &err);
    int same = 0;
    while (same < reply.n && same < (int)r->n_greedy && reply.ids[same] == r->greedy[same]) same++;
    G4_EXPECT(status == G4_OK && reply.n == (int)r->n_greedy && same == reply.n,
              "%s: %s; %d tokens, the first %d as expected", what, err.message, reply.n, same);
    G4_EXPECT(g4_session_rewind(s, (int)r->n, &err) == G4_OK, "%s: %s", what, err.message);
    if (!want_logprobs) return;
    G4_EXPECT(fabsf(reply.margin - r->margin) <= MAX_MARGIN_DIFF, "%s: the closest call is %g, expected %g", what,
              (double)reply.margin, (double)r->margin);
}

/* ---- Against the reference ------------------------------------------------------------------- */

typedef struct { /* states of the last token, as in the .ref */
    const g4_ref *r;
    float *states;
    int n;
} g4_states;

static void g4_keep_state(void *user, const g4_tap *tap)
{
    g4_states *s = user;
    const int last = (int)s->r->n - 1 - tap->pos, n_layers = (int)s->r->n_layers;
    const int row = strcmp(tap->name, "embed") == 0       ? 0
                    : strcmp(tap->name, "layer_out") == 0 ? tap->layer + 1
                    : strcmp(tap->name, "norm") == 0      ? n_layers
                                                          : -1;
    if (row < 0 || last >= tap->n_rows || (tap->layer == n_layers - 1 && row == n_layers)) return;
    memcpy(s->states + (size_t)row * s->r->hidden, tap->values + (size_t)last * tap->stride,
           s->r->hidden * sizeof *s->states);
    s->n++;
}

/* The scaled embedding, the stream after each layer but the last, and the final norm, of the last token. */
static void g4_check_states(g4_engine *e, const g4_ref *r, const char *what)
{
    g4_states states = { r, malloc((size_t)(r->n_layers + 1) * r->hidden * sizeof(float)), 0 };
    const g4_taps taps = { .fn = g4_keep_state, .user = &states };
    const g4_session_options opt = { .n_ctx = 512, .taps = &taps };
    g4_session *s = NULL;
    g4_error err = { G4_OK, "" };
    G4_EXPECT(states.states && g4_session_open(&s, e, &opt, &err) == G4_OK &&
                  g4_session_eval(s, r->tokens, (int)r->n, &err) == G4_OK && states.n == (int)r->n_layers + 1,
              "%s: %s, %d states", what, err.message, states.n);
    for (size_t i = 0; states.n == (int)r->n_layers + 1 && i <= r->n_layers; i++) {
        const float *want = r->states + i * r->hidden, *got = states.states + i * r->hidden;
        float largest = 0;
        for (uint32_t h = 0; h < r->hidden; h++) largest = fmaxf(largest, fabsf(want[h]));
        const float diff = g4_max_diff(got, want, r->hidden) / largest;
        G4_EXPECT(diff <= MAX_STATE_DIFF, "%s: state %zu is off by %g of its largest value", what, i, (double)diff);
    }
    g4_session_close(s);
    free(states.states);
}

static void g4_test_reference(const char *member, const g4_ref *r)
{
    char path[64];
    snprintf(path, sizeof path, "tests/data/text_%s.g4", member);
    for (int i = 0; g4_isa_name(i); i++) {
        g4_engine *e = g4_open(path, 1, g4_isa_name(i));
        g4_session *s = e ? g4_start(e, 0, G4_KV_DEFAULT) : NULL;
        float *rows = s ? g4_all_logits(s, r->tokens, (int)r->n, (int)r->n_vocab) : NULL;
        if (rows) {
            const float diff = g4_max_diff(rows, r->logits, (size_t)r->n * r->n_vocab);
            printf("%-7s %-10s max logit difference %.2e\n", member, g4_isa_name(i), (double)diff);
            G4_EXPECT(diff <= MAX_LOGIT_DIFF, "%s on %s: logits differ by %g", member, g4_isa_name(i), (double)diff);
            g4_check_greedy(s, r, 0, member);
            g4_check_greedy(s, r, 1, member);
            g4_check_states(e, r, member);
        }
        free(rows);
        g4_session_close(s);
        g4_engine_close(e);
    }
}

/* Other weight types and key/value types: how far from float32 the distribution moves. The bounds are about
 * twice what was measured; in a model as small as these a block of 32 is most of a row, and an expert changes with a
 * rounding. */
static void g4_test_types(const char *member, const g4_ref *r)
{
    static const struct {
        const char *member, *type;
        g4_kv_choice kv;
        double max_kl;
    } cases[] = {
        { "e2b", "f32", G4_KV_USE_F16, 3e-6 },   { "e2b", "f32", G4_KV_USE_Q8_0, 1.5e-3 },
        { "e2b", "bf16", G4_KV_DEFAULT, 2e-3 },  { "e2b", "q8_0", G4_KV_DEFAULT, 1.5e-2 },
        { "e2b", "q8_0", G4_KV_USE_Q8_0, 2e-2 }, { "e2b", "q4_0", G4_KV_DEFAULT, 1.5 },
        { "26b", "f32", G4_KV_USE_F16, 3e-6 },   { "26b", "q8_0", G4_KV_DEFAULT, 0.15 },
        { "26b", "q4_0", G4_KV_DEFAULT, 1.6 },
    };
    static const char *const kv_names[] = { "default", "f16", "f32", "q8_0" };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(cases[i].member, member) != 0) continue;
        char path[64];
        if (strcmp(cases[i].type, "f32") == 0)
            snprintf(path, sizeof path, "tests/data/text_%s.g4", member);
        else
            snprintf(path, sizeof path, "tests/data/text_%s.%s.g4", member, cases[i].type);
        g4_engine *e = g4_open(path, 1, NULL);
        g4_session *s = e ? g4_start(e, 0, cases[i].kv) : NULL;
        float *rows = s ? g4_all_logits(s, r->tokens, (int)r->n, (int)r->n_vocab) : NULL;
        if (rows) {
            const double kl = g4_mean_kl(r->logits, rows, (int)r->n, (int)r->n_vocab);
            printf("%-7s %-5s keys/values %-7s KL %.2e\n", member, cases[i].type, kv_names[cases[i].kv], kl);
            G4_EXPECT(kl <= cases[i].max_kl, "%s %s: KL %g", member, cases[i].type, kl);
        }
        free(rows);
        g4_session_close(s);
        g4_engine_close(e);
    }
}

/* ---- One token, one value ---------------------------------------------------------------------- */

/* Every way to evaluate the prompt gives the bits of `want` (n, n_vocab). */
static void g4_test_chunks(g4_engine *e, const g4_ref *r, const float *want, g4_kv_choice kv, const char *what)
{
    static const int chunks[] = { 1, 3, 7, 16, 64, 100, 0 };
    const int n = (int)r->n, v = (int)r->n_vocab;
    g4_error err;
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        g4_session *s = g4_start(e, chunks[i], kv);
        if (!s) return;
        float *rows = g4_all_logits(s, r->tokens, n, v);
        G4_EXPECT(rows && memcmp(rows, want, (size_t)n * r->n_vocab * sizeof *rows) == 0, "%s: chunk %d, all logits",
                  what, chunks[i]);
        free(rows);
        g4_session_close(s);
        /* the layers after the last key/value owner are skipped for all tokens but the last */
        s = g4_start(e, chunks[i], kv);
        if (!s) return;
        G4_EXPECT(g4_session_eval(s, r->tokens, n, &err) == G4_OK && g4_same(s, want + (size_t)(n - 1) * r->n_vocab, v),
                  "%s: chunk %d, last logits", what, chunks[i]);
        g4_session_close(s);
    }
    g4_session *s = g4_start(e, 0, kv);
    int same = 0;
    for (int i = 0; s && i < n; i++)
        same += g4_session_eval(s, r->tokens + i, 1, &err) == G4_OK && g4_same(s, want + (size_t)i * r->n_vocab, v);
    G4_EXPECT(same == n, "%s: %d of %d one-token steps", what, same, n);
    g4_session_close(s);
    /* in three pieces of odd lengths */
    s = g4_start(e, 0, kv);
    const int a = n / 3, b = n - 5;
    G4_EXPECT(s && g4_session_eval(s, r->tokens, a, &err) == G4_OK &&
                  g4_same(s, want + (size_t)(a - 1) * r->n_vocab, v) &&
                  g4_session_eval(s, r->tokens + a, b - a, &err) == G4_OK &&
                  g4_same(s, want + (size_t)(b - 1) * r->n_vocab, v) &&
                  g4_session_eval(s, r->tokens + b, n - b, &err) == G4_OK &&
                  g4_same(s, want + (size_t)(n - 1) * r->n_vocab, v),
              "%s: three pieces", what);
    g4_session_close(s);
}

typedef struct {
    unsigned char *data;
    size_t n, cap, at;
} g4_bytes;

static int g4_write_bytes(void *user, const void *data, size_t size)
{
    g4_bytes *b = user;
    if (size > b->cap - b->n) {
        const size_t cap = 2 * (b->n + size);
        unsigned char *p = realloc(b->data, cap);
        if (!p) return 1;
        b->data = p;
        b->cap = cap;
    }
    memcpy(b->data + b->n, data, size);
    b->n += size;
    return 0;
}

static int g4_read_saved(void *user, void *data, size_t size)
{
    g4_bytes *b = user;
    if (size > b->n - b->at) return 1;
    memcpy(data, b->data + b->at, size);
    b->at += size;
    return 0;
}

/* Going back, forks, saved state and prefix reuse are only other ways to the same state. */
static void g4_test_timeline(g4_engine *e, const g4_ref *r, const float *want, g4_kv_choice kv, const char *what)
{
    const int n = (int)r->n, v = (int)r->n_vocab;
    const int places[] = { n, n - 1, 65, 64, 63, 25, 1 };
    g4_error err = { G4_OK, "" };
    g4_session *s = g4_start(e, 0, kv);
    if (!s) return;
    G4_EXPECT(g4_session_logits(s) == NULL, "%s: an empty timeline has logits", what);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const int at = places[i];
        /* to the end (marking a place on the way), back to `at`, and to the end again */
        int ok = g4_session_eval(s, r->tokens + g4_session_n(s), n - g4_session_n(s), &err) == G4_OK;
        ok = ok && g4_session_rewind(s, at, &err) == G4_OK && g4_session_n(s) == at &&
             g4_same(s, want + (size_t)(at - 1) * r->n_vocab, v);
        G4_EXPECT(ok, "%s: back to %d: %s", what, at, err.message);
        if (i % 2) G4_EXPECT(g4_session_mark(s, &err) == G4_OK, "%s", err.message);
        ok = at == n || (g4_session_eval(s, r->tokens + at, n - at, &err) == G4_OK &&
                         g4_same(s, want + (size_t)(n - 1) * r->n_vocab, v));
        G4_EXPECT(ok, "%s: on from %d: %s", what, at, err.message);
    }
    G4_EXPECT(g4_session_rewind(s, 0, &err) == G4_OK && g4_session_n(s) == 0 && g4_session_logits(s) == NULL,
              "%s: back to the start", what);
    G4_EXPECT(g4_session_rewind(s, 1, &err) == G4_ERR_ARGUMENT && g4_session_rewind(s, -1, &err) == G4_ERR_ARGUMENT,
              "%s: places that are not there", what);

    /* two sessions from position 50, one of them led astray */
    g4_session *fork = NULL;
    G4_EXPECT(g4_session_eval(s, r->tokens, 50, &err) == G4_OK && g4_session_fork(&fork, s, &err) == G4_OK, "%s: %s",
              what, err.message);
    if (fork) {
        G4_EXPECT(g4_same(fork, want + (size_t)49 * r->n_vocab, v), "%s: fork", what);
        G4_EXPECT(g4_session_eval(fork, r->tokens + 3, 40, &err) == G4_OK, "%s: %s", what, err.message);
        G4_EXPECT(g4_session_eval(s, r->tokens + 50, n - 50, &err) == G4_OK &&
                      g4_same(s, want + (size_t)(n - 1) * r->n_vocab, v),
                  "%s: after a fork", what);
        G4_EXPECT(g4_session_rewind(fork, 50, &err) == G4_OK &&
                      g4_session_eval(fork, r->tokens + 50, n - 50, &err) == G4_OK &&
                      g4_same(fork, want + (size_t)(n - 1) * r->n_vocab, v),
                  "%s: the fork comes back", what);
        /* a whole prompt that agrees with the timeline up to 70, then up to the end */
        int32_t other[512];
        int reused = -1;
        memcpy(other, r->tokens, (size_t)n * sizeof *other);
        other[70] = other[70] == 9 ? 10 : 9;
        g4_prompt p = { .tokens = other, .n = n };
        G4_EXPECT(g4_session_sync(fork, &p, &reused, &err) == G4_OK && reused <= 70 &&
                      !g4_same(fork, want + (size_t)(n - 1) * r->n_vocab, v),
                  "%s: another prompt, %d reused: %s", what, reused, err.message);
        p.tokens = r->tokens;
        G4_EXPECT(g4_session_sync(fork, &p, &reused, &err) == G4_OK &&
                      g4_same(fork, want + (size_t)(n - 1) * r->n_vocab, v),
                  "%s: the prompt again, %d reused", what, reused);
        const uint64_t evaluated = g4_session_n_evaluated(fork);
        G4_EXPECT(g4_session_sync(fork, &p, &reused, &err) == G4_OK && g4_session_n_evaluated(fork) - evaluated <= 1,
                  "%s: nothing new", what);
    }

    /* saved and loaded in the middle and at the end */
    static const int saved_at[] = { 40, 0 };
    for (int i = 0; i < 2; i++) {
        const int at = saved_at[i] ? saved_at[i] : n;
        g4_bytes file = { NULL, 0, 0, 0 };
        g4_session *loaded = NULL;
        const g4_session_options opt = { .n_ctx = 512, .kv = kv };
        int ok = g4_session_rewind(s, 0, &err) == G4_OK && g4_session_eval(s, r->tokens, at, &err) == G4_OK &&
                 g4_session_save(s, g4_write_bytes, &file, &err) == G4_OK &&
                 g4_session_load(&loaded, e, &opt, g4_read_saved, &file, &err) == G4_OK;
        G4_EXPECT(ok && file.at == file.n, "%s: saved at %d: %s", what, at, err.message);
        if (loaded) {
            G4_EXPECT(g4_session_n(loaded) == at && g4_same(loaded, want + (size_t)(at - 1) * r->n_vocab, v),
                      "%s: loaded at %d", what, at);
            G4_EXPECT(at == n || (g4_session_eval(loaded, r->tokens + at, n - at, &err) == G4_OK &&
                                  g4_same(loaded, want + (size_t)(n - 1) * r->n_vocab, v)),
                      "%s: on after loading at %d", what, at);
        }
        g4_session_close(loaded);
        free(file.data);
    }
    g4_session_close(fork);
    g4_session_close(s);
}

static void g4_test_bits(const char *member, const char *suffix, const g4_ref *r, g4_kv_choice kv)
{
    static const int threads[] = { 1, 2, 5 };
    char path[64], what[96];
    float *want = NULL;
    snprintf(path, sizeof path, "tests/data/text_%s%s.g4", member, suffix);
    for (int t = 0; t < 3; t++) {
        snprintf(what, sizeof what, "%s%s kv %d, %d threads", member, suffix, (int)kv, threads[t]);
        g4_engine *e = g4_open(path, threads[t], NULL);
        g4_session *s = e ? g4_start(e, 0, kv) : NULL;
        float *rows = s ? g4_all_logits(s, r->tokens, (int)r->n, (int)r->n_vocab) : NULL;
        if (rows && want) G4_EXPECT(memcmp(rows, want, (size_t)r->n * r->n_vocab * sizeof *rows) == 0, "%s", what);
        if (rows && !want) {
            want = rows;
            rows = NULL;
        }
        free(rows);
        g4_session_close(s);
        if (e && want) {
            if (threads[t] != 5) g4_test_chunks(e, r, want, kv, what);
            if (threads[t] != 1) g4_test_timeline(e, r, want, kv, what);
        }
        g4_engine_close(e);
    }
    free(want);
}

/* Saved state belongs to one model. */
static void g4_test_other_model(const g4_ref *r)
{
    g4_engine *a = g4_open("tests/data/text_e2b.g4", 1, NULL), *b = g4_open("tests/data/text_e4b.g4", 1, NULL);
    g4_session *s = a && b ? g4_start(a, 0, G4_KV_DEFAULT) : NULL, *loaded = NULL;
    g4_bytes file = { NULL, 0, 0, 0 };
    g4_error err = { G4_OK, "" };
    if (s && g4_session_eval(s, r->tokens, 10, &err) == G4_OK &&
        g4_session_save(s, g4_write_bytes, &file, &err) == G4_OK) {
        const g4_session_options opt = { .n_ctx = 512 };
        G4_EXPECT(g4_session_load(&loaded, b, &opt, g4_read_saved, &file, &err) == G4_ERR_MISMATCH && !loaded, "%s",
                  err.message);
    } else {
        G4_EXPECT(0, "%s", err.message);
    }
    free(file.data);
    g4_session_close(s);
    g4_engine_close(a);
    g4_engine_close(b);
}

int main(void)
{
    for (int i = 0; i < N_MEMBERS; i++) {
        g4_ref r;
        if (!g4_ref_load(&r, g4_members[i])) continue;
        g4_test_reference(g4_members[i], &r);
        g4_test_types(g4_members[i], &r);
        g4_test_bits(g4_members[i], "", &r, G4_KV_DEFAULT);
        if (i == 0) {
            g4_test_bits("e2b", ".q4_0", &r, G4_KV_DEFAULT);
            g4_test_bits("e2b", ".q8_0", &r, G4_KV_USE_Q8_0);
            g4_test_bits("e2b", ".bf16", &r, G4_KV_USE_F16);
            g4_test_other_model(&r);
        }
        if (i == 2) g4_test_bits("26b", ".q4_0", &r, G4_KV_DEFAULT);
        g4_ref_free(&r);
    }
    return g4_test_end();
}
