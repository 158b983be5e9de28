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

/* Say how a checkpoint becomes a model file, whose name without the ending is the `stem` bytes at name. */
static int advise_export(const char *path, const char *name, size_t stem, const char *what)
{
    buffer command = { 0 }, script = { 0 }, target = { 0 };
    buffer_add(&target, name, stem);
    buffer_str(&target, ".g4");
    buffer_str(&command, "python3 ");
    add_shell_word(&command, companion_find("export.py", &script) ? script.data : "export.py");
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
        return advise_export(path, path, n, "folder");
    }
    if (n > sizeof ending - 1 && strcmp(path + stem, ending) == 0) return advise_export(path, path, stem, "GGUF file");
    return DONE;
}

/* Is text the id of a model on a hub, as "google/gemma-4-E2B-it"? */
static int is_hub_id(const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    size_t owner = strspn(text, letters), name = text[owner] == '/' ? strspn(text + owner + 1, letters) : 0;
    return owner > 0 && text[0] != '.' && name > 0 && text[owner + 1 + name] == '\0' && strstr(text, ".g4") == NULL;
}

static int refuse_missing(const arguments *a)
{
    const char *model = a->model, *slash = strchr(model, '/');
    if (is_hub_id(model)) return advise_export(model, slash + 1, strlen(slash + 1), "name on a hub");
    return say(FAILED, "there is no model %s%s: no such file, and none of that name among those of gemma4 models",
               model, is_given(a, FIELD(model)) != NULL ? "" : ", which GEMMA4_MODEL or the configuration names");
}

static void on_log(void *user, g4_log_level level, const char *text)
{
    const arguments *a = user;
    if (level == G4_LOG_WARNING || (level == G4_LOG_INFO && !a->quiet)) say(DONE, "%s", text);
}

int model_open(g4_engine **out, arguments *a)
{
    g4_error err;
    int status = DONE;
    if (a->model != NULL && !model_named(a)) return refuse_missing(a);
    if (a->model == NULL && !model_default(a)) return say(USAGE, "no model: give one with -m FILE");
    if (a->model == a->found_model.data && !a->quiet) say(DONE, "using %s", a->model);
    status = refuse_checkpoint(a->model);
    if (status != DONE) return status;
    g4_engine_options opt = { .model_path = a->model,
                              .n_threads = a->n_threads,
                              .isa = a->isa,
                              .lock_memory = a->lock_memory,
                              .huge_pages = a->huge_pages,
                              .no_mmap = a->no_mmap,
                              .static_activations = a->static_activations,
                              .log = on_log,
                              .user = a,
                              .limits = until_interrupted(),
                              .taps = a->taps };
    if (!a->no_mmap) watch_mapped(a->model);
    if (g4_engine_open(out, &opt, &err) != G4_OK) return report(&err);
    g4_engine_info info;
    g4_engine_get_info(*out, &info);
    if (a->n_ctx == CONTEXT_MAX) a->n_ctx = info.max_ctx;
    if (info.n_params > 0 && a->n_ctx > info.max_ctx) { /* whoever opens a session only later, too */
        g4_engine_close(*out);
        *out = NULL;
        return say(FAILED, "context of %d tokens: this model has 1 to %d", a->n_ctx, info.max_ctx);
    }
    return DONE;
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

int context_size(const arguments *a, const g4_engine_info *info)
{
    const int usual = 8192; /* of g4_session_options */
    if (a->n_ctx > 0) return a->n_ctx;
    return info->max_ctx < usual ? info->max_ctx : usual;
}

g4_session_options session_options(const arguments *a, progress_line *p)
{
    *p = (progress_line) { .enabled = !a->quiet && terminal_draws(STDERR_FILENO) };
    return (g4_session_options) { .n_ctx = a->n_ctx,
                                  .kv = (g4_kv_choice)a->kv,
                                  .progress = on_progress,
                                  .user = p,
                                  .limits = until_interrupted(),
                                  .taps = a->taps };
}

g4_status token_ids(const g4_engine *e, const char *text, size_t len, int specials, g4_token **ids, size_t *n,
                    g4_error *err)
{
    g4_engine_info info;
    size_t cap = len + 1; /* BOS, and a token is at least one byte */
    g4_engine_get_info(e, &info);
    *ids = calloc(cap, sizeof **ids);
    if (*ids == NULL) {
        *err = (g4_error) { .code = G4_ERR_MEMORY, .message = "no memory for the token ids" };
        return G4_ERR_MEMORY;
    }
    (*ids)[0] = info.bos;
    const g4_status status = g4_tokenize(e, text, len, specials, *ids + 1, cap - 1, n, err);
    if (status != G4_OK) return status;
    *n += 1;
    if (*n <= INT_MAX) return G4_OK;
    *err = (g4_error) { .code = G4_ERR_ARGUMENT, .message = "the text is too long" };
    return G4_ERR_ARGUMENT;
}

int text_tokens(const g4_engine *e, const buffer *text, int specials, g4_token **ids, size_t *n)
{
    g4_error err;
    return token_ids(e, buffer_text(text), text->len, specials, ids, n, &err) == G4_OK ? DONE : report(&err);
}

g4_token control_token(const g4_engine *e, const char *name)
{
    g4_token id;
    size_t n = 0;
    return g4_tokenize(e, name, strlen(name), 1, &id, 1, &n, NULL) == G4_OK && n == 1 ? id : -1;
}
