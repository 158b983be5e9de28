/* complete.c - what may stand at the cursor of the line editor: candidates, and files among them. */
#include "cli.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_CANDIDATES = 4096 }; /* more are no help to a reader */

void completion_add(completion *c, const char *shown, const char *text)
{
    if (c->n == MAX_CANDIDATES) return;
    candidate *grown = realloc(c->list, ((size_t)c->n + 1) * sizeof *grown);
    if (grown == NULL) return; /* one less to choose from */
    c->list = grown;
    candidate *added = &grown[c->n];
    *added = (candidate) { { 0 }, { 0 } };
    buffer_str(&added->shown, shown);
    buffer_str(&added->text, text);
    if (!added->shown.failed && !added->text.failed) c->n++;
}

void completion_free(completion *c)
{
    for (int i = 0; i < c->n; i++) {
        buffer_free(&c->list[i].shown);
        buffer_free(&c->list[i].text);
    }
    free(c->list);
    *c = (completion) { 0 };
}

static int by_name(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    return strcmp(buffer_text(&x->shown), buffer_text(&y->shown));
}

void completion_sort(completion *c)
{
    if (c->n > 1) qsort(c->list, (size_t)c->n, sizeof *c->list, by_name);
}

size_t completion_common(const completion *c)
{
    const buffer *first = &c->list[0].text;
    size_t n = first->len;
    for (int i = 1; i < c->n; i++) {
        const buffer *other = &c->list[i].text;
        size_t same = 0;
        while (same < n && same < other->len && other->data[same] == first->data[same]) same++;
        n = same;
    }
    while (n > 0 && n < first->len && ((unsigned char)first->data[n] & 0xC0) == 0x80) n--; /* no half characters */
    return n;
}

/* ---- Paths as they are typed ---------------------------------------------------------------------- */

/* The bytes that a backslash keeps what they are. */
static const char special[] = " \t\\'\"()&;$`*?[]{}<>|#!";

void path_typed(const char *text, buffer *out)
{
    size_t n = strlen(text);
    char quote = n > 0 && (text[0] == '"' || text[0] == '\'') ? text[0] : '\0';
    while (n > 0 && text[n - 1] == ' ' && (n < 2 || text[n - 2] != '\\')) n--;
    if (quote != '\0') {
        size_t is_closed = n > 1 && text[n - 1] == quote;
        buffer_add(out, text + 1, n - 1 - is_closed);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\\' && i + 1 < n && strchr(special, text[i + 1]) != NULL) i++;
        buffer_add(out, text + i, 1);
    }
}

/* The same as one would type it, behind `quote` or with backslashes. */
static void add_typed(buffer *out, const char *path, size_t n, char quote)
{
    for (size_t i = 0; i < n; i++) {
        if (quote == '\0' && strchr(special, path[i]) != NULL) buffer_str(out, "\\");
        buffer_add(out, path + i, 1);
    }
}

static int is_folder(const char *folder, const char *name)
{
    buffer path = { 0 };
    struct stat st;
    buffer_fmt(&path, "%s/%s", folder, name);
    int is = !path.failed && stat(path.data, &st) == 0 && S_ISDIR(st.st_mode);
    buffer_free(&path);
    return is;
}

/* Could the name stand in a line, and be read there? */
static int is_plain(const char *name)
{
    size_t bytes;
    for (size_t n = strlen(name); n > 0; n -= bytes, name += bytes) {
        if (*name == '\n' || *name == '\t' || !is_harmless(name, n, USE_MESSAGE, &bytes)) return 0;
    }
    return 1;
}

/* A file of `folder`; typed has what stands in front of its name. */
static void add_file(completion *c, const char *folder, const char *name, const buffer *typed, char quote)
{
    buffer shown = { 0 }, text = { 0 };
    int leads_on = is_folder(folder, name);
    buffer_fmt(&shown, "%s%s", name, leads_on ? "/" : "");
    buffer_add(&text, buffer_text(typed), typed->len);
    add_typed(&text, name, strlen(name), quote);
    if (leads_on)
        buffer_str(&text, "/");
    else if (quote != '\0')
        buffer_add(&text, &quote, 1);
    if (!shown.failed && !text.failed) completion_add(c, shown.data, text.data);
    buffer_free(&shown);
    buffer_free(&text);
}

void complete_file(completion *c, const char *typed)
{
    const char *home = getenv("HOME");
    buffer path = { 0 }, folder = { 0 }, front = { 0 };
    char quote = typed[0] == '"' || typed[0] == '\'' ? typed[0] : '\0';
    path_typed(typed, &path);
    const char *whole = buffer_text(&path), *slash = strrchr(whole, '/'), *name = slash != NULL ? slash + 1 : whole;
    size_t n_folder = (size_t)(name - whole);
    int is_home = n_folder > 1 && whole[0] == '~' && whole[1] == '/' && home != NULL && quote == '\0';
    if (is_home) buffer_str(&folder, home);
    buffer_add(&folder, whole + is_home, n_folder - (size_t)is_home);
    if (folder.len == 0) buffer_str(&folder, ".");
    if (quote != '\0') buffer_add(&front, &quote, 1);
    add_typed(&front, whole, n_folder, quote);
    DIR *dir = folder.failed || path.failed || front.failed ? NULL : opendir(folder.data);
    for (const struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;) {
        const char *found = entry->d_name;
        if (strncmp(found, name, strlen(name)) != 0 || (found[0] == '.' && name[0] != '.') || !is_plain(found))
            continue;
        if (strcmp(found, ".") != 0 && strcmp(found, "..") != 0) add_file(c, folder.data, found, &front, quote);
    }
    if (dir != NULL) closedir(dir);
    completion_sort(c);
    buffer_free(&path);
    buffer_free(&folder);
    buffer_free(&front);
}

int path_given(const char *text, buffer *out)
{
    buffer typed = { 0 };
    struct stat st;
    path_typed(text, &typed);
    int status = typed.failed ? say(FAILED, "no memory for %s", text)
                              : path_expand(stat(text, &st) == 0 ? text : buffer_text(&typed), out);
    buffer_free(&typed);
    return status;
}
