/* test_small_stack.c - every call that computes works on a thread with a stack of 256 KB: opening, prompts, answers,
 * saving and loading, towers and media files, for each kernel table and sorts of model; and every kind of picture.
 * One thread does all the work, so that what workers run is measured too. Each in a process of its own, so that one
 * that ends it is counted. */
#define _GNU_SOURCE /* strsignal */
#include "gemma4.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { STACK = 4 << 20 }; /* frames are several times as large */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
enum { STACK = 4 << 20 };
#else
enum { STACK = 256 << 10 };
#endif
#else
enum { STACK = 256 << 10 };
#endif
enum { N_TOKENS = 300 };

static const char *const g4_models[] = { "tests/data/media/e2b-q8_0.g4", "tests/data/media/e2b.g4",
                                         "tests/data/media/26b.g4",      "tests/data/text_26b.q4_0.g4",
                                         "tests/data/text_e2b.bf16.g4",  "tests/data/text_26b.q8_0.g4",
                                         "tests/data/text_e2b.q4_0.g4" };
enum { N_MODELS = sizeof g4_models / sizeof *g4_models };

typedef struct {
    const char *model; /* NULL: no engine, but the pictures of tests/data/pictures.bin */
    const char *isa;
    const char *failed; /* the call that did, or NULL */
    g4_error err;
} g4_life;

typedef struct {
    unsigned char *data;
    size_t size, pos;
} g4_memory;

static int g4_keep_bytes(void *user, const void *data, size_t n)
{
    g4_memory *m = user;
    unsigned char *grown = realloc(m->data, m->size + n);
    if (!grown) return 1;
    memcpy(grown + m->size, data, n);
    m->data = grown;
    m->size += n;
    return 0;
}

static int g4_give_bytes(void *user, void *data, size_t n)
{
    g4_memory *m = user;
    if (n > m->size - m->pos) return 1;
    memcpy(data, m->data + m->pos, n);
    m->pos += n;
    return 0;
}

static int g4_see_row(void *user, int index, const float *logits)
{
    (void)index;
    *(float *)user += logits[0];
    return 0;
}

#define G4_DO(call)                                                                                                    \
    do {                                                                                                               \
        if (!l->failed && (call) != G4_OK) l->failed = #call;                                                          \
    } while (0)

/* Pictures, sounds and videos from files to soft tokens. */
static void g4_live_media(g4_life *l, g4_engine *e, const g4_engine_info *info)
{
    static const char *const pictures[] = { "tests/data/tiny/ask0_0.png", "tests/data/tiny/read0_0.png" };
    g4_error *err = &l->err;
    g4_media_info about;
    g4_soft *soft = NULL;
    for (int i = 0; i < 2; i++) {
        g4_image image = { 0 };
        g4_patches patches = { 0 };
        g4_memory png = { 0 };
        G4_DO(g4_media_probe(&about, pictures[i], NULL, err));
        G4_DO(g4_image_load(&image, pictures[i], NULL, err));
        G4_DO(g4_patches_make(&patches, &image, NULL, err));
        G4_DO(g4_png_write(&image, g4_keep_bytes, &png, NULL, err));
        image.max_tokens = 70;
        if (info->has_image) G4_DO(g4_image_encode(&soft, e, &image, err));
        g4_soft_close(e, soft);
        soft = NULL;
        if (info->has_image && info->has_audio) G4_DO(g4_frame_encode(&soft, e, &image, err));
        g4_soft_close(e, soft);
        soft = NULL;
        g4_patches_close(&patches, NULL);
        g4_image_free(&image, NULL);
        free(png.data);
    }
    g4_audio sound = { 0 };
    g4_video video = { 0 };
    G4_DO(g4_audio_load(&sound, "tests/data/tiny/speech1_0.wav", NULL, err));
    if (!l->failed) g4_audio_mel(&sound, NULL);
    if (info->has_audio) G4_DO(g4_audio_encode(&soft, e, &sound, err));
    G4_DO(g4_video_load(&video, "tests/data/tiny/video0.y4m", NULL, err));
    g4_soft_close(e, soft);
    g4_audio_free(&sound, NULL);
    g4_video_free(&video, NULL);
}

static void g4_live_session(g4_life *l, g4_engine *e, g4_kv_choice kv)
{
    const g4_session_options opt = { .n_ctx = 2 * N_TOKENS, .kv = kv };
    const g4_sampling hot = { .temperature = 1, .top_k = 40, .top_p = 0.9f, .repeat_penalty = 1.1f };
    const g4_generate_options generate = {
        .max_tokens = 20, .sampling = &hot, .want_logprobs = 1, .n_top = 64, .ignore_stop_ids = 1
    };
    const g4_generate_options greedy = { .max_tokens = 12, .ignore_stop_ids = 1 };
    g4_error *err = &l->err;
    g4_session *s = NULL, *fork = NULL, *loaded = NULL;
    g4_memory saved = { 0 };
    g4_token ids[N_TOKENS], token;
    float sum = 0;
    int reused;
    for (int i = 0; i < N_TOKENS; i++) ids[i] = 5 + i % 90;
    G4_DO(g4_session_open(&s, e, &opt, err));
    G4_DO(g4_session_eval(s, ids, N_TOKENS, err));
    G4_DO(g4_session_mark(s, err));
    G4_DO(g4_session_eval_text(s, "hello <|turn> world", 0, err));
    G4_DO(g4_session_generate(s, &generate, NULL, err));
    G4_DO(g4_session_generate(s, &greedy, NULL, err));
    G4_DO(g4_session_choose(s, NULL, &token, err));
    G4_DO(g4_session_fork(&fork, s, err));
    G4_DO(g4_session_rewind(s, 40, err));
    G4_DO(g4_session_eval_all(s, &(g4_prompt) { .tokens = ids, .n = 20 }, g4_see_row, &sum, err));
    G4_DO(g4_session_sync(s, &(g4_prompt) { .tokens = ids, .n = N_TOKENS }, &reused, err));
    if (!l->failed) g4_session_logits(s);
    G4_DO(g4_session_save(fork, g4_keep_bytes, &saved, err));
    G4_DO(g4_session_load(&loaded, e, &opt, g4_give_bytes, &saved, err));
    g4_session_close(loaded);
    g4_session_close(fork);
    g4_session_close(s);
    free(saved.data);
}

static uint32_t g4_number_at(const unsigned char *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Pictures of every kind that is read here (make_pictures_data.py). Those that ffmpeg unpacks (kind 4, with their
 * pixels behind the file) need not open where there is none. */
static void g4_live_pictures(g4_life *l)
{
    enum { MAGIC = 8, HEAD = 28, PICTURE = 1, NEAR = 4 };
    g4_error *err = &l->err;
    g4_memory all = { 0 };
    unsigned char piece[65536];
    size_t n, at = MAGIC;
    FILE *f = fopen("tests/data/pictures.bin", "rb");
    while (f && (n = fread(piece, 1, sizeof piece, f)) > 0) g4_keep_bytes(&all, piece, n);
    if (f) fclose(f);
    if (all.size <= MAGIC) l->failed = "tests/data/pictures.bin";
    while (at + HEAD <= all.size && !l->failed) {
        const unsigned char *record = all.data + at, *data = record + HEAD + g4_number_at(record + 20);
        const uint32_t kind = g4_number_at(record), pixels = g4_number_at(record + 4) * g4_number_at(record + 8);
        const size_t size = g4_number_at(record + 24);
        g4_image image = { 0 };
        g4_media_info about;
        at = (size_t)(data - all.data) + size;
        if (kind == PICTURE) G4_DO(g4_media_probe_data(&about, data, size, NULL, err));
        if (kind == PICTURE) G4_DO(g4_image_decode(&image, data, size, NULL, err));
        if (kind == NEAR) g4_image_decode(&image, data, size - (size_t)3 * pixels, NULL, NULL);
        g4_image_free(&image, NULL);
    }
    free(all.data);
}

static void *g4_live(void *user)
{
    g4_life *l = user;
    if (!l->model) {
        g4_live_pictures(l);
        return NULL;
    }
    g4_engine *e = NULL;
    g4_engine_info info = { 0 };
    g4_error *err = &l->err;
    for (int how = 0; how < 3; how++) { /* mapped, read, copied */
        g4_engine_close(e);
        e = NULL;
        G4_DO(g4_engine_open(
            &e,
            &(g4_engine_options) {
                .model_path = l->model, .isa = l->isa, .n_threads = 1, .no_mmap = how == 1, .huge_pages = how == 2 },
            err));
    }
    g4_engine_get_info(e, &info);
    G4_DO(g4_engine_prefault(e, NULL, NULL, err));
    for (int kv = G4_KV_USE_F16; kv <= G4_KV_USE_Q8_0; kv++) g4_live_session(l, e, (g4_kv_choice)kv);
    g4_live_media(l, e, &info);
    g4_engine_close(e);
    return NULL;
}

/* Never returns. */
static void g4_run_life(g4_life *l)
{
    pthread_t thread;
    pthread_attr_t attr;
    if (pthread_attr_init(&attr) != 0 || pthread_attr_setstacksize(&attr, STACK) != 0 ||
        pthread_create(&thread, &attr, g4_live, l) != 0 || pthread_join(thread, NULL) != 0)
        _exit(4);
    if (l->failed) printf("%s, %s: %s: %s\n", l->model ? l->model : "pictures", l->isa, l->failed, l->err.message);
    fflush(stdout);
    _exit(l->failed != NULL);
}

static void g4_check_life(const char *model, const char *isa)
{
    g4_life l = { .model = model, .isa = isa };
    int status = -1;
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) g4_run_life(&l);
    const int is_over = child > 0 && waitpid(child, &status, 0) == child;
    G4_EXPECT(is_over && status == 0, "%s, %s: %s", model ? model : "pictures", isa,
              is_over && WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "failed");
}

int main(void)
{
    for (int isa = 0; g4_isa_name(isa); isa++)
        for (int i = 0; i < N_MODELS; i++) g4_check_life(g4_models[i], g4_isa_name(isa));
    g4_check_life(NULL, "any");
    return g4_test_end();
}
