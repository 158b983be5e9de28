/* A call that fails leaves everything as it was: every public call on engines and sessions, with two sessions and a
 * picture, every allocation failed in turn, from the first to the last; then the same objects go on and are compared,
 * bit for bit, with ones that never failed. Reading and writing that fail, and prompts that are refused, the same. */
#include <stdlib.h>
#include <string.h>

#include "gemma4.h"

#include "test.h"

enum { N_TEXT = 70, N_CTX = 512, MORE = 5 };

/* What the calls work on. The second session is a fork of the first that went its own way. */
typedef struct {
    g4_engine *e;
    g4_session *s[2];
    g4_soft *picture;
    uint8_t pixels[3 * 48 * 48];
    float samples[4000];
    g4_token text[N_CTX];
    g4_medium medium;
    unsigned char *saved; /* the first session */
    size_t saved_size, saved_cap, read_pos;
    long stop_after; /* bytes that can be read or written; -1: all */
    int n_vocab;
} g4_world;

typedef struct {
    g4_session *session; /* what a call made, and the bits of its tokens */
    g4_soft *soft;
    g4_engine *engine;
    uint64_t sum;
} g4_made;

static uint64_t g4_mix(uint64_t sum, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++) sum = (sum ^ p[i]) * UINT64_C(1099511628211);
    return sum;
}

/* ---- Memory that ends ----------------------------------------------------------------------------- */

typedef struct {
    long left;    /* allocations until one fails; -1: none does */
    int for_good; /* so do all after it */
    long live;    /* blocks that were not given back */
} g4_memory;

static void *g4_memory_alloc(void *user, size_t size, size_t align)
{
    g4_memory *m = user;
    if (m->left == 0) {
        m->left = m->for_good ? 0 : -1;
        return NULL;
    }
    if (m->left > 0) m->left--;
    void *p = aligned_alloc(align, (size + align - 1) / align * align);
    if (p) m->live++;
    return p;
}

static void g4_memory_free(void *user, void *ptr, size_t size)
{
    (void)size;
    if (ptr) ((g4_memory *)user)->live--;
    free(ptr);
}

/* ---- States ------------------------------------------------------------------------------------- */

static int g4_write(void *user, const void *data, size_t size)
{
    g4_world *w = user;
    if (w->stop_after >= 0 && (w->stop_after -= (long)size) < 0) return 1;
    if (w->saved_size + size > w->saved_cap) return 1;
    memcpy(w->saved + w->saved_size, data, size);
    w->saved_size += size;
    return 0;
}

static int g4_read(void *user, void *data, size_t size)
{
    g4_world *w = user;
    if (w->stop_after >= 0 && (w->stop_after -= (long)size) < 0) return 1;
    if (w->read_pos + size > w->saved_size) return 1;
    memcpy(data, w->saved + w->read_pos, size);
    w->read_pos += size;
    return 0;
}

/* Tokens, logits, and the logits after a few tokens more, which read every page: the last in a fork. */
static uint64_t g4_state(const g4_world *w, g4_session *s)
{
    const int n = g4_session_n(s);
    uint64_t sum = g4_mix(UINT64_C(14695981039346656037), &n, sizeof n);
    sum = g4_mix(sum, g4_session_tokens(s), (size_t)n * sizeof(g4_token));
    g4_session *fork = NULL;
    g4_error err = { G4_OK, "" };
    if (g4_session_fork(&fork, s, &err) || g4_session_eval(fork, w->text + 3, MORE, &err)) {
        printf("state: %s\n", err.message);
        return 0;
    }
    sum = g4_mix(sum, g4_session_logits(fork), (size_t)w->n_vocab * sizeof(float));
    g4_session_close(fork);
    const float *logits = g4_session_logits(s);
    return logits ? g4_mix(sum, logits, (size_t)w->n_vocab * sizeof *logits) : sum;
}

/* A text with a picture in it for the first session; a fork at its middle for the second, which is rewound and goes on
 * with other words. */
static int g4_world_open(g4_world *w, const char *path, const g4_allocator *a)
{
    memset(w, 0, sizeof *w);
    w->stop_after = -1;
    g4_error err = { G4_OK, "" };
    const g4_engine_options eo = { .model_path = path, .n_threads = 2, .allocator = a };
    const g4_session_options so = { .n_ctx = N_CTX, .chunk = 32 };
    for (size_t i = 0; i < sizeof w->pixels; i++) w->pixels[i] = (uint8_t)(i * i / 7);
    for (int i = 0; i < 4000; i++) w->samples[i] = (float)(i % 100) / 100 - 0.5f;
    for (int i = 0; i < N_CTX; i++) w->text[i] = 30 + i * 7 % 200;
    const g4_image image = { .pixels = w->pixels, .width = 48, .height = 48, .max_tokens = 70 };
    g4_engine_info info;
    int ok = !g4_engine_open(&w->e, &eo, &err);
    if (ok) g4_engine_get_info(w->e, &info);
    w->n_vocab = ok ? info.n_vocab : 0;
    ok = ok && !g4_session_open(&w->s[0], w->e, &so, &err);
    if (ok && info.has_image) {
        ok = !g4_image_encode(&w->picture, w->e, &image, &err);
        w->medium = (g4_medium) { 10, w->picture };
        for (int i = 0; ok && i < g4_soft_n(w->picture); i++) w->text[10 + i] = g4_soft_token(w->picture);
    }
    const g4_prompt prompt = {
        .tokens = w->text, .n = N_TEXT + 40, .media = &w->medium, .n_media = w->picture ? 1 : 0
    };
    ok = ok && !g4_session_eval_prompt(w->s[0], &prompt, &err) && !g4_session_mark(w->s[0], &err) &&
         !g4_session_eval(w->s[0], w->text + 100, 65 + 64 - N_TEXT - 40, &err) && /* page 2 holds one position */
         !g4_session_fork(&w->s[1], w->s[0], &err) && !g4_session_rewind(w->s[1], 120, &err) &&
         !g4_session_eval(w->s[1], w->text + 200, 30, &err);
    w->saved_cap = 1 << 24;
    w->saved = malloc(w->saved_cap);
    ok = ok && w->saved && !g4_session_save(w->s[0], g4_write, w, &err);
    G4_EXPECT(ok, "%s: %s", path, err.message);
    return ok;
}

static void g4_world_close(g4_world *w)
{
    g4_soft_close(w->e, w->picture);
    g4_session_close(w->s[0]);
    g4_session_close(w->s[1]);
    g4_engine_close(w->e);
    free(w->saved);
}

/* ---- Calls -------------------------------------------------------------------------------------- */

static g4_status g4_do_eval(g4_world *w, g4_made *m, g4_error *err)
{
    (void)m;
    return g4_session_eval(w->s[0], w->text + 7, 150, err); /* several chunks and pages */
}

static g4_status g4_do_eval_one(g4_world *w, g4_made *m, g4_error *err)
{
    (void)m;
    return g4_session_eval(w->s[1], w->text + 7, 1, err);
}

static g4_status g4_do_eval_prompt(g4_world *w, g4_made *m, g4_error *err)
{
    (void)m;
    return g4_session_eval_prompt(
        w->s[0], &(g4_prompt) { .tokens = w->text, .n = 100, .media = &w->medium, .n_media = w->picture ? 1 : 0 }, err);
}

static g4_status g4_do_eval_text(g4_world *w, g4_made *m, g4_error *err)
{
    (void)m;
    return g4_session_eval_text(w->s[0], "What is this? ", 0, err);
}

static int g4_sum_row(void *user, int index, const float *logits)
{
    g4_made *m = user;
    m->sum = g4_mix(m->sum, &logits[index % 50], sizeof *logits);
    return 0;
}

static g4_status g4_do_eval_all(g4_world *w, g4_made *m, g4_error *err)
{
    m->sum = 1;
    return g4_session_eval_all(w->s[0], &(g4_prompt) { .tokens = w->text + 90, .n = 70 }, g4_sum_row, m, err);
}

/* Back inside the window, and behind it, to a picture's start and into the shared page. */
static g4_status g4_do_rewind(g4_world *w, g4_made *m, g4_error *err)
{
    (void)m;
    return g4_session_rewind(w->s[0], 125, err);
}

static g4_status g4_do_rewind_far(g4_world *w, g4_made *m, g4_error *err)
{
    (void)m;
    return g4_session_rewind(w->s[1], 90, err);
}

static g4_status g4_do_rewind_page(g4_world *w, g4_made *m, g4_error *err)
{
    (void)m;
    return g4_session_rewind(w->s[0], 128, err);
}

static g4_status g4_do_sync(g4_world *w, g4_made *m, g4_error *err)
{
    (void)m;
    g4_token other[300];
    memcpy(other, w->text, sizeof other);
    for (int i = 115; i < 300; i++) other[i] = 30 + i * 11 % 200;
    const g4_prompt p = { .tokens = other, .n = 300, .media = &w->medium, .n_media = w->picture ? 1 : 0 };
    return g4_session_sync(w->s[0], &p, NULL, err);
}

static g4_status g4_do_sync_new(g4_world *w, g4_made *m, g4_error *err)
{
    (void)m;
    return g4_session_sync(w->s[1], &(g4_prompt) { .tokens = w->text + 200, .n = 200 }, NULL, err);
}

static g4_status g4_do_mark(g4_world *w, g4_made *m, g4_error *err)
{
    (void)m;
    return g4_session_mark(w->s[0], err);
}

static g4_status g4_do_fork(g4_world *w, g4_made *m, g4_error *err)
{
    return g4_session_fork(&m->session, w->s[0], err);
}

static g4_status g4_do_save(g4_world *w, g4_made *m, g4_error *err)
{
    w->saved_size = 0;
    const g4_status st = g4_session_save(w->s[0], g4_write, w, err);
    if (!st) m->sum = g4_mix(1, w->saved, w->saved_size);
    return st;
}

static g4_status g4_do_load(g4_world *w, g4_made *m, g4_error *err)
{
    w->read_pos = 0;
    return g4_session_load(&m->session, w->e, &(g4_session_options) { .n_ctx = N_CTX }, g4_read, w, err);
}

static g4_status g4_do_generate(g4_world *w, g4_made *m, g4_error *err)
{
    (void)m;
    const char *const stop[] = { "never said" };
    const g4_sampling sampling = { .temperature = 1, .top_k = 20, .seed = 5 };
    const g4_generate_options opt = {
        .sampling = &sampling, .max_tokens = 70, .ignore_stop_ids = 1, .no_guard = 1, .stop = stop, .n_stop = 1
    };
    return g4_session_generate(w->s[0], &opt, NULL, err);
}

/* The choice after one that was evaluated, so that its logits are not there yet. */
static g4_status g4_do_choose(g4_world *w, g4_made *m, g4_error *err)
{
    g4_token token = -1;
    const g4_sampling sampling = { .temperature = 1, .top_k = 20, .repeat_penalty = 1.2f, .seed = 9 };
    const g4_status st =
        g4_session_choose(w->s[1], &(g4_choose_options) { .sampling = &sampling, .reply_start = 3 }, &token, err);
    if (!st) m->sum = g4_mix(1, &token, sizeof token);
    return st;
}

static g4_status g4_do_open_session(g4_world *w, g4_made *m, g4_error *err)
{
    return g4_session_open(&m->session, w->e, &(g4_session_options) { .n_ctx = 64 }, err);
}

static g4_status g4_do_image(g4_world *w, g4_made *m, g4_error *err)
{
    static const uint8_t pixels[3 * 60 * 60]; /* a picture that is not remembered yet */
    if (!w->picture) return G4_OK;
    const g4_image image = { .pixels = pixels, .width = 60, .height = 60, .max_tokens = 70 };
    return g4_image_encode(&m->soft, w->e, &image, err);
}

static g4_status g4_do_audio(g4_world *w, g4_made *m, g4_error *err)
{
    g4_engine_info info;
    g4_engine_get_info(w->e, &info);
    if (!info.has_audio) return G4_OK;
    return g4_audio_encode(&m->soft, w->e, &(g4_audio) { .samples = w->samples, .n_samples = 4000 }, err);
}

static g4_status g4_do_tokenize(g4_world *w, g4_made *m, g4_error *err)
{
    g4_token ids[64];
    size_t n = 0;
    const g4_status st = g4_tokenize(w->e, "Some words, and more words. 123", 31, 0, ids, 64, &n, err);
    if (!st) m->sum = g4_mix(1, ids, n * sizeof *ids);
    return st;
}

static const struct {
    const char *name;
    g4_status (*run)(g4_world *w, g4_made *m, g4_error *err);
} g4_calls[] = { { "g4_session_eval", g4_do_eval },
                 { "g4_session_eval, one token", g4_do_eval_one },
                 { "g4_session_eval_prompt", g4_do_eval_prompt },
                 { "g4_session_eval_text", g4_do_eval_text },
                 { "g4_session_eval_all", g4_do_eval_all },
                 { "g4_session_rewind, to a page", g4_do_rewind_page },
                 { "g4_session_rewind", g4_do_rewind },
                 { "g4_session_rewind, far", g4_do_rewind_far },
                 { "g4_session_sync", g4_do_sync },
                 { "g4_session_sync, all new", g4_do_sync_new },
                 { "g4_session_mark", g4_do_mark },
                 { "g4_session_fork", g4_do_fork },
                 { "g4_session_save", g4_do_save },
                 { "g4_session_load", g4_do_load },
                 { "g4_session_generate", g4_do_generate },
                 { "g4_session_choose", g4_do_choose },
                 { "g4_session_open", g4_do_open_session },
                 { "g4_image_encode", g4_do_image },
                 { "g4_audio_encode", g4_do_audio },
                 { "g4_tokenize", g4_do_tokenize } };
enum { N_CALLS = sizeof g4_calls / sizeof *g4_calls };

/* The bits of what a call made. */
static uint64_t g4_made_sum(const g4_world *w, const g4_made *m)
{
    uint64_t sum = m->sum;
    if (m->session && g4_session_n(m->session) > 0) sum ^= g4_state(w, m->session);
    if (m->soft) sum = g4_mix(sum, g4_soft_rows(m->soft), (size_t)g4_soft_n(m->soft) * sizeof(float));
    return sum;
}

static void g4_drop_made(g4_world *w, g4_made *m)
{
    g4_session_close(m->session);
    g4_soft_close(w->e, m->soft);
    m->session = NULL;
    m->soft = NULL;
}

/* The sum of both sessions. */
static uint64_t g4_states(const g4_world *w)
{
    const uint64_t first = g4_state(w, w->s[0]), second = g4_state(w, w->s[1]);
    return first && second ? g4_mix(first, &second, sizeof second) : 0;
}

/* ---- Allocations that fail -------------------------------------------------------------------------- */

/* One call in two worlds; in the second every allocation of it fails, one after the other, before it succeeds. Returns
 * how many did. */
static long g4_test_call(int i, g4_world *whole, g4_world *w, g4_memory *memory)
{
    g4_made made = { 0 }, same = { 0 };
    g4_error err = { G4_OK, "" };
    const g4_status st = g4_calls[i].run(whole, &same, &err);
    G4_EXPECT(st == G4_OK, "%s: %s", g4_calls[i].name, err.message);
    const uint64_t before = g4_states(w);
    long n = 0;
    for (int for_good = 1;; n += for_good, for_good = !for_good) {
        memory->left = n;
        memory->for_good = !for_good;
        const g4_status failed = g4_calls[i].run(w, &made, &err);
        memory->left = -1;
        if (failed == G4_OK) break;
        G4_EXPECT(failed == G4_ERR_MEMORY && !made.session && !made.soft, "%s, allocation %ld: status %d: %s",
                  g4_calls[i].name, n, failed, err.message);
        G4_EXPECT(g4_states(w) == before, "%s, allocation %ld: the sessions changed", g4_calls[i].name, n);
        if (failed != G4_ERR_MEMORY || n > 5000) break;
    }
    G4_EXPECT(g4_made_sum(w, &made) == g4_made_sum(whole, &same), "%s: another result after failures",
              g4_calls[i].name);
    G4_EXPECT(g4_states(w) == g4_states(whole), "%s: another state after failures", g4_calls[i].name);
    g4_drop_made(w, &made);
    g4_drop_made(whole, &same);
    return n;
}

static long g4_test_memory(const char *path)
{
    g4_world whole, w;
    g4_memory memory = { .left = -1 };
    const g4_allocator a = { g4_memory_alloc, g4_memory_free, &memory };
    long n = 0;
    if (g4_world_open(&whole, path, NULL) && g4_world_open(&w, path, &a)) {
        for (int i = 0; i < N_CALLS; i++) n += g4_test_call(i, &whole, &w, &memory);
        g4_world_close(&w);
        G4_EXPECT(memory.live == 0, "%s: %ld blocks were not given back", path, memory.live);
        g4_world_close(&whole);
    }
    return n;
}

/* A fork at 70 that goes back to 65, whose last position stands alone in its page, while the page cannot be copied. */
static void g4_test_shared_page(const char *path)
{
    g4_world w;
    g4_memory memory = { .left = -1 };
    const g4_allocator a = { g4_memory_alloc, g4_memory_free, &memory };
    g4_session *fork = NULL;
    g4_error err = { G4_OK, "" };
    if (!g4_world_open(&w, path, &a)) return;
    int ok = !g4_session_sync(w.s[1], &(g4_prompt) { .tokens = w.text + 200, .n = 70 }, NULL, &err) &&
             !g4_session_fork(&fork, w.s[1], &err);
    const uint64_t before = g4_states(&w);
    for (long n = 0; ok; n++) {
        memory.left = n;
        const g4_status st = g4_session_rewind(w.s[1], 65, &err);
        memory.left = -1;
        if (st == G4_OK) break;
        G4_EXPECT(g4_states(&w) == before, "%s: a page that cannot be copied, allocation %ld", path, n);
    }
    ok = ok && !g4_session_rewind(fork, 65, &err);
    G4_EXPECT(ok && g4_state(&w, fork) == g4_state(&w, w.s[1]), "%s: a shared page: %s", path, err.message);
    g4_session_close(fork);
    g4_world_close(&w);
}

/* Two marks in one page, which the windows have left since: a sync that parts between them and fails gives the second
 * back as it was. Each failure has a session of its own, for what happens to pages makes later calls copy them. Returns
 * 0 when the sync succeeded. */
static int g4_fail_between_marks(g4_world *w, g4_memory *memory, long left, const float *want)
{
    g4_session *s = NULL;
    g4_error err = { G4_OK, "" };
    g4_token other[300];
    memcpy(other, w->text + 100, sizeof other);
    for (int i = 110; i < 300; i++) other[i] = 30 + i * 13 % 200;
    int ok = !g4_session_open(&s, w->e, &(g4_session_options) { .n_ctx = N_CTX, .chunk = 32 }, &err) &&
             !g4_session_eval(s, w->text + 100, 100, &err) && !g4_session_mark(s, &err) &&
             !g4_session_eval(s, w->text + 200, 20, &err) && !g4_session_mark(s, &err) &&
             !g4_session_eval(s, w->text + 220, 280, &err);
    memory->left = left;
    const g4_status st = g4_session_sync(s, &(g4_prompt) { .tokens = other, .n = 300 }, NULL, &err);
    memory->left = -1;
    ok = ok && (st == G4_OK || (!g4_session_rewind(s, 120, &err) && !g4_session_eval(s, w->text + 3, MORE, &err)));
    const float *logits = ok && st ? g4_session_logits(s) : NULL;
    G4_EXPECT(ok && (!st || (logits && memcmp(logits, want, (size_t)w->n_vocab * sizeof *logits) == 0)),
              "the second mark, allocation %ld: %s", left, err.message);
    g4_session_close(s);
    return ok && st != G4_OK;
}

static void g4_test_marks(const char *path)
{
    g4_world w;
    g4_memory memory = { .left = -1 };
    const g4_allocator a = { g4_memory_alloc, g4_memory_free, &memory };
    g4_session *same = NULL;
    g4_error err = { G4_OK, "" };
    if (!g4_world_open(&w, path, &a)) return;
    const int ok = !g4_session_open(&same, w.e, &(g4_session_options) { .n_ctx = N_CTX }, &err) &&
                   !g4_session_eval(same, w.text + 100, 120, &err) && !g4_session_eval(same, w.text + 3, MORE, &err);
    G4_EXPECT(ok, "%s: %s", path, err.message);
    for (long n = 0; ok && g4_fail_between_marks(&w, &memory, n, g4_session_logits(same)); n++) continue;
    g4_session_close(same);
    g4_world_close(&w);
}

/* Pictures side by side see each other in the large models: going back between them is going back before them. */
static void g4_test_joined(const char *path)
{
    g4_world w;
    g4_session *s = NULL, *fresh = NULL;
    g4_error err = { G4_OK, "" };
    if (!g4_world_open(&w, path, NULL)) return;
    if (w.picture) {
        const int n = g4_soft_n(w.picture);
        g4_token text[300];
        memcpy(text, w.text, sizeof text);
        for (int i = 0; i < 2 * n; i++) text[10 + i] = g4_soft_token(w.picture);
        const g4_medium both[2] = { { 10, w.picture }, { 10 + n, w.picture } };
        const g4_prompt two = { .tokens = text, .n = 20 + 2 * n, .media = both, .n_media = 2 };
        const g4_prompt one = { .tokens = text, .n = 10 + n, .media = both, .n_media = 1 };
        const g4_session_options so = { .n_ctx = N_CTX };
        int ok = !g4_session_open(&s, w.e, &so, &err) && !g4_session_open(&fresh, w.e, &so, &err) &&
                 !g4_session_eval_prompt(s, &two, &err) && !g4_session_sync(s, &one, NULL, &err) &&
                 !g4_session_eval_prompt(fresh, &one, &err);
        G4_EXPECT(ok && g4_state(&w, s) == g4_state(&w, fresh), "%s: one of two pictures: %s", path, err.message);
        ok = ok && !g4_session_sync(s, &two, NULL, &err) && !g4_session_rewind(fresh, 0, &err) &&
             !g4_session_eval_prompt(fresh, &two, &err);
        G4_EXPECT(ok && g4_state(&w, s) == g4_state(&w, fresh), "%s: two of one picture: %s", path, err.message);
        g4_session_close(s);
        g4_session_close(fresh);
    }
    g4_world_close(&w);
}

/* ---- What is refused, and reading and writing that fail -------------------------------------------- */

static int g4_refuse(void *user, int index, const float *logits)
{
    (void)logits;
    return index == *(int *)user;
}

static void g4_expect_refused(const g4_world *w, uint64_t before, g4_status st, g4_status want, const char *what)
{
    G4_EXPECT(st == want, "%s: status %d, not %d", what, st, want);
    G4_EXPECT(g4_states(w) == before, "%s: the sessions changed", what);
}

static void g4_test_refusals(const char *path)
{
    g4_world w;
    g4_error err;
    if (!g4_world_open(&w, path, NULL)) return;
    const uint64_t before = g4_states(&w);
    g4_token bad[20] = { 30, 31, 32, 33, -5 };
    int reused = 0, stop_at = 60;
    const g4_medium outside = { 2000000000, w.picture }, none = { 0, NULL }, early = { -1, w.picture };
    const struct {
        const char *what;
        g4_prompt p;
        g4_status want;
    } prompts[] = {
        { "-4 tokens", { .tokens = w.text, .n = -4 }, G4_ERR_ARGUMENT },
        { "NULL tokens", { .n = 4 }, G4_ERR_ARGUMENT },
        { "an id of -5", { .tokens = bad, .n = 20 }, G4_ERR_ARGUMENT },
        { "too many", { .tokens = w.text, .n = N_CTX + 1 }, G4_ERR_CONTEXT },
        { "-1 media", { .tokens = w.text, .n = 9, .n_media = -1 }, G4_ERR_ARGUMENT },
        { "NULL media", { .tokens = w.text, .n = 9, .n_media = 1 }, G4_ERR_ARGUMENT },
        { "a medium far outside", { .tokens = w.text, .n = 9, .media = &outside, .n_media = 1 }, G4_ERR_ARGUMENT },
        { "a medium before it", { .tokens = w.text, .n = 9, .media = &early, .n_media = 1 }, G4_ERR_ARGUMENT },
        { "a NULL medium", { .tokens = w.text, .n = 9, .media = &none, .n_media = 1 }, G4_ERR_ARGUMENT }
    };
    for (size_t i = 0; i < sizeof prompts / sizeof *prompts; i++) {
        const g4_prompt *p = &prompts[i].p;
        g4_expect_refused(&w, before, g4_session_sync(w.s[0], p, &reused, &err), prompts[i].want, prompts[i].what);
        g4_expect_refused(&w, before, g4_session_eval_prompt(w.s[1], p, &err), prompts[i].want, prompts[i].what);
        g4_expect_refused(&w, before, g4_session_eval_all(w.s[1], p, g4_refuse, &stop_at, &err), prompts[i].want,
                          prompts[i].what);
    }
    g4_expect_refused(&w, before, g4_session_sync(w.s[0], NULL, NULL, &err), G4_ERR_ARGUMENT, "NULL prompt");
    g4_expect_refused(&w, before, g4_session_rewind(w.s[0], -1, &err), G4_ERR_ARGUMENT, "back to -1");
    g4_expect_refused(&w, before, g4_session_rewind(w.s[0], 9999, &err), G4_ERR_ARGUMENT, "back to 9999");
    const g4_prompt rows = { .tokens = w.text + 100, .n = 90 };
    for (stop_at = 0; stop_at < 90; stop_at += 29)
        g4_expect_refused(&w, before, g4_session_eval_all(w.s[0], &rows, g4_refuse, &stop_at, &err), G4_ERR_CANCELED,
                          "a row callback that stops");
    const long size = (long)w.saved_size;
    for (long n = 0; n < size; n += size / 40 + 1) {
        g4_made made = { 0 };
        w.stop_after = n;
        g4_expect_refused(&w, before, g4_do_load(&w, &made, &err), G4_ERR_IO, "a file that ends");
        G4_EXPECT(!made.session, "a session of %ld bytes", n);
    }
    for (long n = 0; n < size; n += size / 40 + 1) {
        g4_made made = { 0 };
        w.stop_after = n;
        g4_expect_refused(&w, before, g4_do_save(&w, &made, &err), G4_ERR_IO, "a disk that is full");
    }
    g4_world_close(&w);
}

int main(void)
{
    static const char *const models[] = { "tests/data/media/e2b.g4",   "tests/data/media/e4b.g4",
                                          "tests/data/media/31b.g4",   "tests/data/media/26b.g4",
                                          "tests/data/text_gemma3.g4", "tests/data/media/e2b-q8_0.g4" };
    long failures = 0;
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        failures += g4_test_memory(models[i]);
        g4_test_shared_page(models[i]);
        g4_test_marks(models[i]);
        g4_test_joined(models[i]);
        g4_test_refusals(models[i]);
    }
    printf("%d calls x %zu models, %ld allocations failed\n", N_CALLS, sizeof models / sizeof *models, failures);
    return g4_test_end();
}
