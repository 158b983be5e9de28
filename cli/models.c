/* models.c - where model files lie: beside the program or in its installation, in the user's folder, in the current
 * one; a model that is called by its name, and the list of all that are there. */
#include "cli.h"

#include <dirent.h>
#include <limits.h>
#ifdef __APPLE__
#include <mach-o/dyld.h>
#endif
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Folders ---------------------------------------------------------------------------------------------- */

/* The program's own file; 0 when the system does not say, else the length of its path. */
static ssize_t program_path(char self[PATH_MAX])
{
#ifdef __APPLE__
    uint32_t size = PATH_MAX;
    return _NSGetExecutablePath(self, &size) == 0 ? (ssize_t)strlen(self) : 0;
#else
    return readlink("/proc/self/exe", self, PATH_MAX - 1);
#endif
}

/* The folder of the program, without a slash at its end; empty when the system does not say. */
static void add_program_folder(buffer *out)
{
    char self[PATH_MAX];
    ssize_t n = program_path(self);
    while (n > 0 && self[n - 1] != '/') n--;
    if (n > 1) buffer_add(out, self, (size_t)n - 1);
}

int companion_find(const char *name, buffer *path)
{
    static const char *const places[] = { "/", "/../share/gemma4/" };
    buffer folder = { 0 };
    int found = 0;
    add_program_folder(&folder);
    for (size_t i = 0; folder.len > 0 && !found && i < sizeof places / sizeof places[0]; i++) {
        path->len = 0;
        buffer_fmt(path, "%s%s%s", folder.data, places[i], name);
        found = !path->failed && access(path->data, R_OK) == 0;
    }
    buffer_free(&folder);
    return found;
}

/* The i-th folder in which models are looked for; 0 past the last. An empty path: this place is not there. */
static int model_folder(int i, buffer *path)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    path->len = 0;
    switch (i) {
    case 0: buffer_str(path, "."); return 1;
    case 1: buffer_str(path, "models"); return 1;
    case 2:
        if (data != NULL && data[0] == '/')
            buffer_fmt(path, "%s/gemma4", data);
        else if (home != NULL && home[0] != '\0')
            buffer_fmt(path, "%s/.local/share/gemma4", home);
        return 1;
    case 3:
    case 4:
        add_program_folder(path);
        if (path->len > 0) buffer_str(path, i == 3 ? "/models" : "/../share/gemma4");
        return 1;
    default: return 0;
    }
}

static const char ending[] = ".g4";

int model_find(const char *name, buffer *path)
{
    buffer folder = { 0 };
    int found = 0;
    for (int i = 0; strchr(name, '/') == NULL && !found && model_folder(i, &folder); i++) {
        for (int k = 0; folder.len > 0 && !found && k < 2; k++) {
            path->len = 0;
            buffer_fmt(path, "%s/%s%s", folder.data, name, k == 0 ? "" : ending);
            struct stat st;
            found = !path->failed && stat(path->data, &st) == 0 && S_ISREG(st.st_mode);
        }
    }
    buffer_free(&folder);
    return found;
}

static int default_path(buffer *path)
{
    return companion_find("models/tiny.g4", path) || companion_find("tiny.g4", path);
}

int model_path(const arguments *a, buffer *path)
{
    if (a->model == NULL) return default_path(path);
    if (access(a->model, F_OK) != 0) return model_find(a->model, path);
    buffer_str(path, a->model);
    return !path->failed;
}

int model_default(arguments *a)
{
    int found = default_path(&a->found_model);
    if (found) a->model = a->found_model.data;
    return found;
}

int model_named(arguments *a)
{
    if (access(a->model, F_OK) == 0) return 1;
    int found = model_find(a->model, &a->found_model);
    if (found) a->model = a->found_model.data;
    return found;
}

/* ---- The list --------------------------------------------------------------------------------------------- */

typedef struct {
    buffer path;
    dev_t device; /* with the inode: which file it is, whatever it is called */
    ino_t inode;
    uint64_t bytes;
} found_file;
typedef struct {
    found_file *files;
    int n, failed;
} found_list;

static void found_free(found_list *list)
{
    for (int i = 0; i < list->n; i++) buffer_free(&list->files[i].path);
    free(list->files);
}

/* A file that is there, unless the list has it. */
static void found_add(found_list *list, const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) return;
    for (int i = 0; i < list->n; i++) {
        if (list->files[i].device == st.st_dev && list->files[i].inode == st.st_ino) return;
    }
    found_file *grown = realloc(list->files, ((size_t)list->n + 1) * sizeof *grown);
    list->failed |= grown == NULL;
    if (grown == NULL) return;
    list->files = grown;
    found_file *f = &grown[list->n++];
    *f = (found_file) { .device = st.st_dev, .inode = st.st_ino, .bytes = (uint64_t)st.st_size };
    buffer_str(&f->path, path);
    list->failed |= f->path.failed;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const found_file *)a)->path.data, ((const found_file *)b)->path.data);
}

/* The model files of a folder, in the order of their names. */
static void found_add_folder(found_list *list, const char *folder)
{
    DIR *d = opendir(folder);
    buffer path = { 0 };
    int before = list->n;
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL && !list->failed;) {
        size_t n = strlen(e->d_name), m = sizeof ending - 1;
        if (n <= m || strcmp(e->d_name + n - m, ending) != 0) continue;
        path.len = 0;
        if (strcmp(folder, ".") != 0) buffer_fmt(&path, "%s/", folder);
        buffer_str(&path, e->d_name);
        if (!path.failed) found_add(list, path.data);
        list->failed |= path.failed;
    }
    if (d != NULL) closedir(d);
    if (!list->failed && list->n > before)
        qsort(list->files + before, (size_t)(list->n - before), sizeof *list->files, by_path);
    buffer_free(&path);
}

const char *weight_type(const g4_engine *e)
{
    uint64_t most = 0, bytes[16] = { 0 };
    const char *types[16] = { NULL }, *best = "none";
    g4_tensor_info t;
    for (int i = 0; g4_engine_get_tensor(e, i, &t); i++) {
        int k = 0;
        if (strncmp(t.name, "l.", 2) != 0) continue;
        while (k < 15 && types[k] != NULL && strcmp(types[k], t.type) != 0) k++;
        types[k] = t.type;
        bytes[k] += t.bytes;
        if (bytes[k] <= most) continue;
        most = bytes[k];
        best = t.type;
    }
    return best;
}

/* What the file is, or what is wrong with it. */
static void add_found(buffer *b, const found_file *f, int is_default, int json)
{
    g4_engine *e = NULL;
    g4_engine_info info;
    g4_error err;
    g4_engine_options opt = { .model_path = f->path.data, .n_threads = 1, .limits = until_interrupted() };
    if (json) {
        buffer_str(b, "{\"file\":");
        buffer_quote(b, f->path.data, f->path.len);
        buffer_fmt(b, ",\"bytes\":%llu,\"default\":%s", (unsigned long long)f->bytes, is_default ? "true" : "false");
    } else {
        buffer_fmt(b, "%c %9.1f MB  ", is_default ? '*' : ' ', (double)f->bytes / 1e6);
    }
    g4_status opened = g4_engine_open(&e, &opt, &err);
    if (opened != G4_OK && json) {
        buffer_str(b, ",\"error\":");
        buffer_quote(b, err.message, strlen(err.message));
        buffer_str(b, "}");
    } else if (opened != G4_OK) {
        buffer_fmt(b, "cannot be used: %s\n", err.message);
    }
    if (opened != G4_OK) return;
    g4_engine_get_info(e, &info);
    const char *kind = info.n_params == 0 ? "tokenizer" : info.is_chat ? "chat" : "base", *type = weight_type(e);
    if (json) {
        buffer_str(b, ",\"name\":");
        buffer_quote(b, info.name, strlen(info.name));
        buffer_fmt(b, ",\"kind\":\"%s\",\"image\":%s,\"audio\":%s,\"type\":\"%s\",\"parameters\":%llu,\"context\":%d}",
                   kind, info.has_image ? "true" : "false", info.has_audio ? "true" : "false", type,
                   (unsigned long long)info.n_params, info.max_ctx);
    } else {
        buffer_fmt(b, "%-9s %-6s %9.1f M  %-16s %s\n", kind, type, (double)info.n_params / 1e6,
                   info.has_audio   ? "text,image,audio"
                   : info.has_image ? "text,image"
                                    : "text",
                   f->path.data);
    }
    g4_engine_close(e);
}

/* Where it was looked, as "A, B and so on". */
static void say_folders(void)
{
    buffer folder = { 0 }, list = { 0 };
    for (int i = 0; model_folder(i, &folder); i++) {
        if (folder.len > 0) buffer_fmt(&list, "%s%s", list.len > 0 ? ", " : "", folder.data);
    }
    say(DONE, "looked in %s", buffer_text(&list));
    buffer_free(&folder);
    buffer_free(&list);
}

int run_models(arguments *a)
{
    buffer b = { 0 }, folder = { 0 };
    found_list list = { 0 };
    int status = DONE;
    int is_there = a->model != NULL ? model_named(a) : model_default(a);
    if (is_there)
        found_add(&list, a->model);
    else if (a->model != NULL && is_given(a, FIELD(model)) != NULL)
        return say(FAILED, "there is no model %s", a->model);
    else if (a->model != NULL) /* a list of what there is helps to mend that */
        say(DONE, "there is no model %s, which GEMMA4_MODEL or the configuration names", a->model);
    int has_default = list.n > 0;
    for (int i = 0; model_folder(i, &folder); i++) {
        if (folder.len > 0 && !folder.failed) found_add_folder(&list, folder.data);
    }
    buffer_str(&b, a->json      ? "["
                   : list.n > 0 ? "       size     kind      type  parameters  reads            file\n"
                                : "");
    for (int i = 0; i < list.n && status == DONE; i++) {
        if (a->json && i > 0) buffer_str(&b, ",");
        add_found(&b, &list.files[i], i == 0 && has_default, a->json);
        status = interrupted();
    }
    if (a->json) buffer_str(&b, "]\n");
    if (status == DONE && list.failed) status = say(FAILED, "no memory for the list");
    if (status == DONE) status = print_buffer(&b);
    if (status == DONE && !a->quiet && !a->json) say_folders();
    buffer_free(&b);
    buffer_free(&folder);
    found_free(&list);
    return status;
}
