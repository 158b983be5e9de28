/* model.c - how the command line comes to a model and a session: which file is meant, what to do with a checkpoint that
 * is none, the thread that reads the weights into memory while the user types, the progress of a long prompt, and the
 * tokens of a text. */
#include "cli.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Which file ------------------------------------------------------------------------------- */

/* The path of `name` beside the program or in the share folder of its installation; 0 when there is none. */
static int find_companion(const char *name, buffer *path)
{
    static const char *const places[] = { "/", "/../share/gemma4/" };
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) return 0;
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    if (slash == NULL) return 0;
    *slash = '\0';
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        path->len = 0;
        buffer_str(path, self);
        buffer_str(path, places[i]);
        buffer_str(path, name);
        if (!path->failed && access(path->data, R_OK) == 0) return 1;
    }
    return 0;
}

/* text as one word of a shell command. */
static void add_shell_word(buffer *b, const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-";
    if (text[0] != '\0' && strspn(text, plain) == strlen(text)) {
        buffer_str(b, text);
        return;
    }
    buffer_str(b, "'");
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            buffer_str(b, "'\\''");
        else
            buffer_add(b, text, 1);
    }
    buffer_str(b, "'");
}

/* Say how a checkpoint becomes a model file. Its path without the ending, or without slashes at its end, is `stem`
 * bytes long. */
static int advise_export(const char *path, size_t stem, const char *what)
{
    buffer command = { 0 }, script = { 0 }, target = { 0 };
    buffer_add(&target, path, stem);
    buffer_str(&target, ".g4");
    buffer_str(&command, "python3 ");
    add_shell_word(&command, find_companion("export.py", &script) ? script.data : "export.py");
    buffer_str(&command, " ");
    add_shell_word(&command, path);
    buffer_str(&command, " -o ");
    if (!target.failed) add_shell_word(&command, target.data);
    int status = say(FAILED, "%s is a %s, not a model file; convert it once with\n  %s", path, what,
                     command.failed ? "export.py" : command.data);
    buffer_free(&command);
    buffer_free(&script);
    buffer_free(&target);
    return status;
}

/* DONE unless path is a folder or a GGUF, as checkpoints are. */
static int refuse_checkpoint(const char *path)
{
    static const char ending[] = ".gguf";
    struct stat st;
    size_t n = strlen(path), stem = n - (sizeof ending - 1);
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        while (n > 1 && path[n - 1] == '/') n--;
        return advise_export(path, n, "folder");
    }
    if (n > sizeof ending - 1 && strcmp(path + stem, ending) == 0) return advise_export(path, stem, "GGUF file");
    return DONE;
}

static void on_log(void *user, g4_log_level level, const char *text)
{
    const arguments *a = user;
    if (level == G4_LOG_WARNING || (level == G4_LOG_INFO && !a->quiet)) say(DONE, "%s", text);
}

int model_open(g4_engine **out, arguments *a)
{
    g4_error err;
    if (a->model == NULL) { /* the one that comes with the program */
        if (!find_companion("models/tiny.g4", &a->found_model) && !find_companion("tiny.g4", &a->found_model)) {
            return say(USAGE, "no model: give one with -m FILE");
        }
        a->model = a->found_model.data;
        if (!a->quiet) say(DONE, "using %s", a->model);
    }
    int status = refuse_checkpoint(a->model);
    if (status != DONE) return status;
    g4_engine_options opt = { .model_path = a->model,
                              .n_threads = a->n_threads,
                              .isa = a->isa,
                              .lock_memory = a->lock_memory,
                              .huge_pages = a->huge_pages,
                              .no_mmap = a->no_mmap,
                              .log = on_log,
                              .user = a,
                              .limits = until_interrupted(),
                              .taps = a->taps };
    if (!a->no_mmap) watch_mapped(a->model);
    return g4_engine_open(out, &opt, &err) == G4_OK ? DONE : report(&err);
}

/* ---- Weights come into memory ------------------------------------------------------------------- */

static int on_load(void *user, uint64_t done, uint64_t total)
{
    model_loader *l = user;
    pthread_mutex_lock(&l->lock);
    if (!l->hushed) {
        fprintf(stderr, "\rreading the model: %llu of %llu MB", (unsigned long long)(done / 1000000),
                (unsigned long long)(total / 1000000));
        l->shown = 1;
    }
    pthread_mutex_unlock(&l->lock);
    return atomic_load(&l->quit);
}

void loader_hush(model_loader *l)
{
    if (!l->started) return;
    pthread_mutex_lock(&l->lock);
    if (l->shown) fputs("\r\033[K", stderr);
    l->shown = 0;
    l->hushed = 1;
    pthread_mutex_unlock(&l->lock);
}

static void *loader_main(void *arg)
{
    model_loader *l = arg;
    g4_engine_prefault(l->engine, on_load, l, NULL); /* what it does not bring comes when it is needed */
    return NULL;
}

void loader_start(model_loader *l, g4_engine *e, int shows)
{
    uint64_t resident, total;
    g4_engine_residence(e, &resident, &total);
    if (resident + total / 20 >= total) return; /* 95 %: the rest is not worth a thread */
    l->engine = e;
    l->hushed = !shows;
    pthread_mutex_init(&l->lock, NULL);
    l->started = pthread_create(&l->thread, NULL, loader_main, l) == 0;
}

void loader_end(model_loader *l)
{
    if (!l->started) return;
    loader_hush(l);
    atomic_store(&l->quit, 1);
    pthread_join(l->thread, NULL);
    l->started = 0;
}

/* ---- Session and prompt ------------------------------------------------------------------------- */

static int on_progress(void *user, uint64_t done, uint64_t total)
{
    const double patience = 0.5; /* seconds of a prompt before it shows its progress */
    progress_line *p = user;
    double now = seconds_now();
    if (p->enabled && p->start == 0) p->start = now;
    if (p->loader != NULL && done > 0) loader_hush(p->loader);
    if (p->enabled && (p->shown || (now - p->start > patience && (p->loader == NULL || done > 0)))) {
        fprintf(stderr, "\rreading the prompt: %llu of %llu tokens", (unsigned long long)done,
                (unsigned long long)total);
        p->shown = 1;
    }
    return interrupted();
}

void progress_end(progress_line *p)
{
    if (p->loader != NULL) loader_hush(p->loader);
    if (p->shown) fputs("\r\033[K", stderr);
    p->shown = 0;
    p->start = 0;
}

g4_session_options session_options(const arguments *a, progress_line *p)
{
    *p = (progress_line) { .enabled = !a->quiet && isatty(STDERR_FILENO) };
    return (g4_session_options) { .n_ctx = a->n_ctx,
                                  .kv = (g4_kv_choice)a->kv,
                                  .progress = on_progress,
                                  .user = p,
                                  .limits = until_interrupted(),
                                  .taps = a->taps };
}

int text_tokens(const g4_engine *e, const buffer *text, int specials, g4_token **ids, size_t *n)
{
    g4_error err;
    g4_engine_info info;
    size_t cap = text->len + 1; /* BOS, and a token is at least one byte */
    g4_engine_get_info(e, &info);
    *ids = calloc(cap, sizeof **ids);
    if (*ids == NULL) return say(FAILED, "no memory for the token ids");
    (*ids)[0] = info.bos;
    if (g4_tokenize(e, buffer_text(text), text->len, specials, *ids + 1, cap - 1, n, &err) != G4_OK) {
        return report(&err);
    }
    *n += 1;
    return *n <= INT_MAX ? DONE : say(FAILED, "the text is too long");
}
