/* test_taps.c - every activation against transformers, by name, layer by layer: tests/data/taps_NAME.ref, made by
 * make_taps_data.py. The records of such a file are in the order of computation, so that the first one that is off says
 * where to look; a name that only one side knows is a failure. */
#include "towers.h"

#include <pthread.h>

#define G4_TAP_TOLERANCE 2e-4 /* of the largest magnitude of the token in that tap */
#define G4_MARGIN 1e-5        /* between a chosen expert and one that is not */

/* ---- What taps are shown ------------------------------------------------------------------------ */

typedef struct {
    char name[64]; /* as in a dump */
    int n, n_cols; /* rows so far */
    float *values;
    int32_t *ids;
} g4_seen;
typedef struct {
    g4_seen *all;
    int n, failed; /* failed: what was wrong with a tap itself */
    pthread_t thread;
    g4_session *cancels; /* NULL, or whose call is to end */
} g4_watch;

static void g4_watch_free(g4_watch *w)
{
    for (int i = 0; i < w->n; i++) {
        free(w->all[i].values);
        free(w->all[i].ids);
    }
    free(w->all);
    memset(w, 0, sizeof *w);
}

static g4_seen *g4_find(const g4_watch *w, const char *name)
{
    for (int i = 0; i < w->n; i++)
        if (strcmp(w->all[i].name, name) == 0) return &w->all[i];
    return NULL;
}

static g4_seen *g4_find_or_add(g4_watch *w, const char *name, int n_cols)
{
    g4_seen *s = g4_find(w, name);
    if (s) return s;
    w->all = realloc(w->all, (size_t)(w->n + 1) * sizeof *w->all);
    s = &w->all[w->n++];
    *s = (g4_seen) { .n_cols = n_cols };
    snprintf(s->name, sizeof s->name, "%s", name);
    return s;
}

static void g4_look(void *user, const g4_tap *tap)
{
    g4_watch *w = user;
    const char *dot = strchr(tap->name, '.'), *word = dot ? dot + 1 : tap->name;
    char name[64];
    if (tap->layer < 0)
        snprintf(name, sizeof name, "%s", tap->name);
    else
        snprintf(name, sizeof name, "%.*sl.%d.%s", (int)(word - tap->name), tap->name, tap->layer, word);
    g4_seen *s = g4_find_or_add(w, name, tap->n_cols);
    const int ok = pthread_equal(w->thread, pthread_self()) && tap->pos == s->n && tap->n_cols == s->n_cols &&
                   (tap->values != NULL) + (tap->ids != NULL) == 1 && tap->stride >= (size_t)tap->n_cols;
    if (!ok && !w->failed++) printf("tap %s at %d: thread, position or shape\n", name, tap->pos);
    const size_t size = (size_t)(s->n + tap->n_rows) * (size_t)s->n_cols * sizeof(float);
    if (tap->values) s->values = realloc(s->values, size);
    if (tap->ids) s->ids = realloc(s->ids, size);
    for (int row = 0; row < tap->n_rows; row++, s->n++)
        for (int i = 0; i < s->n_cols; i++) {
            const size_t from = (size_t)row * tap->stride + (size_t)i,
                         to = (size_t)s->n * (size_t)s->n_cols + (size_t)i;
            if (tap->values) s->values[to] = tap->values[from];
            if (tap->ids) s->ids[to] = tap->ids[from];
        }
    if (w->cancels && strcmp(name, "l.1.attn_out") == 0) g4_session_cancel(w->cancels);
}

/* ---- A prompt with its media -------------------------------------------------------------------- */

typedef struct {
    g4_engine *e;
    g4_session *s;
    g4_soft *soft[2];
    g4_medium media[2];
    g4_prompt prompt;
} g4_run_of;

static void g4_run_close(g4_run_of *r)
{
    g4_session_close(r->s);
    for (int i = 0; i < 2; i++) g4_soft_close(r->e, r->soft[i]);
    g4_engine_close(r->e);
}

/* The soft tokens of the picture or the sound of the file into the prompt, at their first placeholder. */
static g4_status g4_add_medium(g4_run_of *r, const g4_ref_file *f, const char *record, uint32_t seed, g4_error *err)
{
    const g4_ref ref = g4_ref_get(f, record, 0, 0);
    const int32_t *is = ref.data;
    g4_soft **soft = &r->soft[r->prompt.n_media];
    g4_status status;
    if (!is) return G4_OK;
    if (ref.n == 3) {
        uint8_t *pixels = g4_picture(is[0], is[1], seed);
        const g4_image image = { .pixels = pixels, .width = is[0], .height = is[1], .max_tokens = is[2] };
        status = g4_image_encode(soft, r->e, &image, err);
        free(pixels);
    } else {
        float *samples = g4_sound((size_t)is[0], is[1], seed);
        const g4_audio sound = { .samples = samples, .n_samples = (size_t)is[0] };
        status = g4_audio_encode(soft, r->e, &sound, err);
        free(samples);
    }
    int pos = 0;
    while (!status && pos < r->prompt.n && r->prompt.tokens[pos] != g4_soft_token(*soft)) pos++;
    if (!status) r->media[r->prompt.n_media++] = (g4_medium) { .pos = pos, .soft = *soft };
    r->prompt.media = r->media;
    return status;
}

typedef struct {
    const char *model, *isa;
    int n_threads, chunk;
    uint32_t seed; /* of its media */
    g4_watch *watch;
} g4_setup;

/* Open everything and encode the media. */
static int g4_run_open(g4_run_of *r, const g4_ref_file *f, const g4_setup *setup)
{
    char path[64];
    g4_error err = { G4_OK, "" };
    const g4_taps taps = { .fn = setup->watch ? g4_look : NULL, .user = setup->watch };
    const int is_media = strcmp(setup->model, "gemma3") != 0;
    const g4_ref tokens = g4_ref_get(f, "tokens", 0, 0);
    memset(r, 0, sizeof *r);
    if (setup->watch) setup->watch->thread = pthread_self();
    snprintf(path, sizeof path,
             !is_media                          ? "tests/data/text_%s.g4"
             : strcmp(setup->model, "e2b") == 0 ? "tests/data/taps_%s.g4"
                                                : "tests/data/media/%s.g4",
             setup->model);
    const g4_engine_options engine = {
        .model_path = path, .n_threads = setup->n_threads, .isa = setup->isa, .taps = &taps
    };
    const g4_session_options session = { .n_ctx = 256, .chunk = setup->chunk, .taps = &taps };
    g4_status status = g4_engine_open(&r->e, &engine, &err);
    r->prompt = (g4_prompt) { .tokens = tokens.data, .n = (int)tokens.n };
    if (!status) status = g4_session_open(&r->s, r->e, &session, &err);
    if (!status && is_media) status = g4_add_medium(r, f, "picture", setup->seed, &err);
    if (!status && is_media && setup->model[0] == 'e') status = g4_add_medium(r, f, "sound", setup->seed, &err);
    G4_EXPECT(status == G4_OK, "%s: %s", path, err.message);
    if (status) g4_run_close(r);
    return status == G4_OK;
}

/* ---- Against the reference -------------------------------------------------------------------------- */

/* The smallest distance of a chosen probability from one that was not, of n. */
static double g4_margin(const float *p, int n, const int32_t *chosen, int used)
{
    double least = 1, most = 0;
    for (int i = 0; i < n; i++) {
        int is_chosen = 0;
        for (int k = 0; k < used; k++) is_chosen |= chosen[k] == i;
        if (is_chosen)
            least = fmin(least, (double)p[i]);
        else
            most = fmax(most, (double)p[i]);
    }
    return least - most;
}

/* Rows whose experts are others, although the choice was not close. */
static int g4_wrong_choices(const g4_ref_file *f, const g4_ref *want, const g4_seen *got)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(strlen(want->head.name) - strlen("_ids")), want->head.name);
    const g4_ref probabilities = g4_ref_get(f, name, 0, 0);
    const int n = (int)probabilities.head.dims[1], used = got->n_cols;
    int wrong = 0;
    for (int row = 0; row < got->n; row++) {
        const int32_t *ids = (const int32_t *)want->data + row * used;
        if (memcmp(ids, got->ids + row * used, (size_t)used * sizeof *ids) == 0) continue;
        wrong += g4_margin((const float *)probabilities.data + row * n, n, ids, used) > G4_MARGIN;
    }
    return wrong;
}

/* The largest difference of a row in units of the row's largest magnitude; the reference has every step-th row. */
static double g4_difference(const g4_ref *want, const g4_seen *got, int step)
{
    double worst = 0;
    for (int k = 0; k * step < got->n; k++) {
        const float *a = (const float *)want->data + k * got->n_cols, *b = got->values + k * step * got->n_cols;
        double largest = 0;
        for (int i = 0; i < got->n_cols; i++) largest = fmax(largest, fabs((double)a[i]));
        const double d = g4_max_diff(a, b, (size_t)got->n_cols) / (largest > 0 ? largest : 1);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

/* One record; 0 when it is off. */
static int g4_compare(const g4_ref_file *f, const g4_ref *want, const g4_watch *w, int step, const char *label,
                      double *worst, char *where)
{
    const char *name = want->head.name;
    const g4_seen *got = g4_find(w, name);
    const int rows = (int)want->head.dims[0], before = g4_failed;
    G4_EXPECT(got, "%s: the first activation that is off is %s: there is none of that name", label, name);
    if (!got) return 0;
    const int kept = rows == got->n ? 1 : step; /* all rows, or every step-th */
    G4_EXPECT((got->n + kept - 1) / kept == rows && got->n_cols == (int)want->head.dims[1] &&
                  (got->ids != NULL) == (int)want->head.is_int,
              "%s: the first activation that is off is %s: (%d, %d), expected (%d, %u)", label, name, got->n,
              got->n_cols, rows, want->head.dims[1]);
    if (g4_failed > before) return 0;
    if (got->ids) {
        const int wrong = g4_wrong_choices(f, want, got);
        G4_EXPECT(wrong == 0, "%s: the first activation that is off is %s: %d rows have other experts", label, name,
                  wrong);
    } else {
        const double d = g4_difference(want, got, kept);
        G4_EXPECT(d <= G4_TAP_TOLERANCE, "%s: the first activation that is off is %s: by %.2g of its largest value",
                  label, name, d);
        if (d > *worst) strcpy(where, name);
        *worst = fmax(*worst, d);
    }
    return g4_failed == before;
}

/* The record at *at, and *at behind it. */
static g4_ref g4_next_record(const g4_ref_file *f, size_t *at)
{
    g4_ref r;
    memset(&r, 0, sizeof r);
    if (*at + sizeof r.head > f->size) return r;
    memcpy(&r.head, f->bytes + *at, sizeof r.head);
    r.n = (size_t)r.head.dims[0] * r.head.dims[1] * r.head.dims[2] * r.head.dims[3];
    r.data = f->bytes + *at + sizeof r.head;
    *at += sizeof r.head + r.n * 4;
    return r;
}

static int g4_is_activation(const char *name)
{
    static const char *const others[] = { "tokens", "picture", "sound", "step" };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strcmp(name, others[i]) == 0) return 0;
    return 1;
}

static void g4_compare_all(const g4_ref_file *f, const g4_watch *w, const char *label)
{
    const int32_t *step = g4_ref_get(f, "step", 0, 0).data;
    double worst = 0;
    char where[32] = "";
    size_t at = 0;
    int ok = 1;
    g4_ref r;
    while (ok && (r = g4_next_record(f, &at)).data)
        if (g4_is_activation(r.head.name)) ok = g4_compare(f, &r, w, *step, label, &worst, where);
    for (int i = 0; i < w->n; i++)
        G4_EXPECT(g4_ref_get(f, w->all[i].name, 0, 0).data, "%s: the reference has no %s", label, w->all[i].name);
    G4_EXPECT(w->failed == 0, "%s: %d taps were wrong in themselves", label, w->failed);
    printf("%s: %d activations, the largest difference is %.2g of the token's largest value, in %s\n", label, w->n,
           worst, where);
}

/* Does MODEL.md name it? */
static int g4_is_documented(const g4_ref_file *model_md, const char *name)
{
    char word[64], quoted[68], *layer = strstr(strcpy(word, name), "l.");
    const char *behind = layer ? strchr(layer + 2, '.') : NULL;
    if (behind) memmove(layer, behind + 1, strlen(behind)); /* the layer and its number */
    snprintf(quoted, sizeof quoted, "`%s`", word);
    const size_t n = strlen(quoted);
    for (size_t at = 0; at + n <= model_md->size; at++)
        if (memcmp(model_md->bytes + at, quoted, n) == 0) return 1;
    return 0;
}

static void g4_test_documented(const g4_watch *w)
{
    g4_ref_file model_md = g4_ref_open("MODEL.md");
    for (int i = 0; i < w->n; i++)
        G4_EXPECT(g4_is_documented(&model_md, w->all[i].name), "MODEL.md does not name %s", w->all[i].name);
    free(model_md.bytes);
}

static void g4_test_member(const char *member, uint32_t seed)
{
    const struct {
        const char *isa;
        int n_threads, chunk;
    } ways[] = { { NULL, 1, 0 }, { NULL, 3, 7 }, { "scalar", 2, 16 } };
    char path[64], label[64];
    snprintf(path, sizeof path, "tests/data/taps_%s.ref", member);
    g4_ref_file f = g4_ref_open(path);
    G4_EXPECT(f.bytes, "%s cannot be read", path);
    for (size_t i = 0; f.bytes && i < sizeof ways / sizeof *ways; i++) {
        g4_watch watch = { 0 };
        const g4_setup setup = { member, ways[i].isa, ways[i].n_threads, ways[i].chunk, seed, &watch };
        g4_run_of r;
        if (!g4_run_open(&r, &f, &setup)) break;
        g4_error err = { G4_OK, "" };
        snprintf(label, sizeof label, "%s, %d threads, chunk %d, %s", member, ways[i].n_threads, ways[i].chunk,
                 ways[i].isa ? ways[i].isa : "best kernels");
        G4_EXPECT(g4_session_eval_prompt(r.s, &r.prompt, &err) == G4_OK, "%s: %s", label, err.message);
        g4_compare_all(&f, &watch, label);
        if (i == 0) g4_test_documented(&watch);
        g4_run_close(&r);
        g4_watch_free(&watch);
    }
    free(f.bytes);
}

/* ---- Taps change nothing ------------------------------------------------------------------------------- */

/* A prompt and an answer whose repetition invites guesses. */
static g4_status g4_prompt_and_answer(g4_run_of *r, g4_token *answer, int n, g4_error *err)
{
    const g4_sampling greedy = { .temperature = 0 };
    const g4_generate_options opt = { .sampling = &greedy, .max_tokens = n, .ignore_stop_ids = 1, .no_guard = 1 };
    g4_status status = g4_session_eval_prompt(r->s, &r->prompt, err);
    if (!status) status = g4_session_generate(r->s, &opt, NULL, err);
    if (!status) memcpy(answer, g4_session_tokens(r->s) + r->prompt.n, (size_t)n * sizeof *answer);
    return status;
}

static void g4_test_same(const char *member, uint32_t seed)
{
    enum { N = 40 };
    char path[64];
    snprintf(path, sizeof path, "tests/data/taps_%s.ref", member);
    g4_ref_file f = g4_ref_open(path);
    g4_watch watch = { 0 };
    g4_run_of with, without;
    g4_token a[N], b[N];
    g4_error err = { G4_OK, "" };
    const g4_setup watched = { .model = member, .n_threads = 2, .seed = seed, .watch = &watch },
                   alone = { .model = member, .n_threads = 2, .seed = seed };
    if (!f.bytes || !g4_run_open(&with, &f, &watched)) return;
    if (g4_run_open(&without, &f, &alone)) {
        const size_t row = g4_ref_get(&f, "logits", 0, 0).head.dims[1] * sizeof(float);
        G4_EXPECT(g4_prompt_and_answer(&with, a, N, &err) == G4_OK &&
                      g4_prompt_and_answer(&without, b, N, &err) == G4_OK,
                  "%s: %s", member, err.message);
        G4_EXPECT(memcmp(a, b, sizeof a) == 0, "%s: taps change the answer", member);
        G4_EXPECT(memcmp(g4_session_logits(with.s), g4_session_logits(without.s), row) == 0, "%s: taps change logits",
                  member);
        const g4_seen *out = g4_find(&watch, "l.0.layer_out"), *logits = g4_find(&watch, "logits");
        const int n = g4_session_n(with.s);
        G4_EXPECT(watch.failed == 0 && out && logits && out->n == n && logits->n == n,
                  "%s: of %d tokens taps saw %d in a layer and %d logits", member, n, out ? out->n : -1,
                  logits ? logits->n : -1);
        g4_run_close(&without);
    }
    g4_run_close(&with);
    g4_watch_free(&watch);
    free(f.bytes);
}

/* A picture that was encoded before is seen again; a fork has its taps; a tap can end the call it sees. */
static void g4_test_calls(void)
{
    g4_ref_file f = g4_ref_open("tests/data/taps_e2b.ref");
    g4_watch watch = { 0 };
    g4_run_of r;
    g4_error err = { G4_OK, "" };
    g4_session *fork = NULL;
    g4_soft *again = NULL;
    if (!f.bytes || !g4_run_open(&r, &f, &(g4_setup) { .model = "e2b", .n_threads = 2, .watch = &watch })) return;
    const int32_t *size = g4_ref_get(&f, "picture", 0, 0).data;
    uint8_t *pixels = g4_picture(size[0], size[1], 0);
    const g4_image image = { .pixels = pixels, .width = size[0], .height = size[1], .max_tokens = size[2] };
    g4_watch_free(&watch);
    watch.thread = pthread_self();
    watch.failed = 1; /* positions are seen again: nothing to tell */
    G4_EXPECT(g4_image_encode(&again, r.e, &image, &err) == G4_OK && g4_find(&watch, "vision.out"),
              "the picture is not seen again: %s", err.message);
    g4_soft_close(r.e, again);
    G4_EXPECT(g4_session_eval(r.s, r.prompt.tokens, 3, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(g4_session_fork(&fork, r.s, &err) == G4_OK &&
                  g4_session_eval(fork, r.prompt.tokens + 1, 1, &err) == G4_OK && g4_find(&watch, "logits")->n == 4,
              "the fork is not seen: %s", err.message);
    g4_session_close(fork);
    const int before = g4_find(&watch, "l.1.attn_heads")->n;
    watch.cancels = r.s;
    G4_EXPECT(g4_session_eval(r.s, r.prompt.tokens + 1, 1, &err) == G4_ERR_CANCELED && g4_session_n(r.s) == 3 &&
                  g4_find(&watch, "l.1.attn_heads")->n == before + 1 &&
                  g4_find(&watch, "l.1.attn_post_norm")->n == before,
              "a tap cannot end the call");
    g4_run_close(&r);
    g4_watch_free(&watch);
    free(pixels);
    free(f.bytes);
}

int main(void)
{
    static const char *const members[] = { "e2b", "e4b", "26b", "31b", "gemma3" };
    for (uint32_t i = 0; i < sizeof members / sizeof *members; i++) {
        g4_test_member(members[i], i);
        g4_test_same(members[i], i);
    }
    g4_test_calls();
    return g4_test_end();
}
