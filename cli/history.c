/* history.c - the lines that were typed before, kept between runs. The file holds a line each, oldest first, in which
 * \n is a newline and \\ a backslash. Programs that run at the same time append to it under a lock, each line in one
 * piece, so none loses those of the others. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAX_LINES = 1000,         /* in memory, and in a file that was just shortened */
    MAX_LINE_BYTES = 1 << 14, /* a longer one is forgotten at the end of the program */
    MAX_FILE_BYTES = 1 << 20  /* then the file is shortened; read are its last so many */
};

/* ---- Lines ---------------------------------------------------------------------------------------- */

/* Is the line worth to be kept? One that begins with a blank is private. */
static int is_kept(const line_history *h, const char *line)
{
    return line[0] != '\0' && line[0] != ' ' && (h->n == 0 || strcmp(h->lines[h->n - 1], line) != 0);
}

/* Memory is no reason to stop: without it a line is forgotten. */
static void lines_add(line_history *h, const char *line, size_t n)
{
    if (h->lines == NULL) h->lines = calloc(MAX_LINES, sizeof *h->lines);
    char *copy = h->lines != NULL ? malloc(n + 1) : NULL;
    if (copy == NULL) return;
    memcpy(copy, line, n);
    copy[n] = '\0';
    if (h->n == MAX_LINES) {
        free(h->lines[0]);
        memmove(h->lines, h->lines + 1, (size_t)--h->n * sizeof *h->lines);
    }
    h->lines[h->n++] = copy;
}

void history_free(line_history *h)
{
    for (int i = 0; i < h->n; i++) free(h->lines[i]);
    free(h->lines);
    buffer_free(&h->path);
    *h = (line_history) { 0 };
}

/* ---- The file ------------------------------------------------------------------------------------- */

/* The folders of a path, those that are missing made for the user alone. */
static int make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        int failed = mkdir(path, 0700) != 0 && errno != EEXIST;
        *slash = '/';
        if (failed) return 0;
    }
    return 1;
}

/* Open the file and hold its lock; -1 when it cannot be, or is no plain file. */
static int open_locked(const char *path)
{
    for (;;) {
        struct stat held, named;
        int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
        if (fd < 0) return -1;
        if (fstat(fd, &held) != 0 || !S_ISREG(held.st_mode)) {
            close(fd);
            errno = EINVAL;
            return -1;
        }
        while (flock(fd, LOCK_EX) != 0 && errno == EINTR && !interrupted()) continue;
        if (stat(path, &named) == 0 && named.st_ino == held.st_ino && named.st_dev == held.st_dev) return fd;
        close(fd); /* another program has put a shorter one in its place meanwhile */
        if (interrupted()) return -1;
    }
}

static void add_escaped(buffer *b, const char *line)
{
    for (; *line != '\0'; line++) {
        if (*line == '\n')
            buffer_str(b, "\\n");
        else if (*line == '\\')
            buffer_str(b, "\\\\");
        else
            buffer_add(b, line, 1);
    }
    buffer_str(b, "\n");
}

/* The lines of a piece of the file, which ends with a newline. */
static void take_lines(line_history *h, const char *text, size_t n)
{
    buffer line = { 0 }, fit = { 0 };
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (c == '\\' && i + 1 < n && text[i + 1] != '\n') c = text[++i] == 'n' ? '\n' : text[i];
        if (text[i] != '\n') {
            buffer_add(&line, &c, 1);
            continue;
        }
        fit.len = 0;
        buffer_utf8(&fit, buffer_text(&line), line.len); /* whoever wrote it */
        if (fit.len > 0 && !fit.failed) lines_add(h, fit.data, fit.len);
        line.len = 0;
    }
    buffer_free(&line);
    buffer_free(&fit);
}

/* The end of the file, at most as much as it is meant to hold, from the start of a line on. */
static void read_end(line_history *h, int fd)
{
    struct stat st;
    char *text = malloc(MAX_FILE_BYTES);
    off_t from = fstat(fd, &st) == 0 && st.st_size > MAX_FILE_BYTES ? st.st_size - MAX_FILE_BYTES : 0;
    size_t n = 0;
    while (text != NULL && n < MAX_FILE_BYTES) {
        ssize_t got = pread(fd, text + n, MAX_FILE_BYTES - n, from + (off_t)n);
        if (got <= 0) break;
        n += (size_t)got;
    }
    const char *start = text, *end = text != NULL ? text + n : NULL;
    if (from > 0 && n > 0) {
        start = memchr(text, '\n', n);
        start = start != NULL ? start + 1 : end;
    }
    if (n > 0) take_lines(h, start, (size_t)(end - start));
    free(text);
}

/* Write the newest lines into a new file that takes the place of the old one, whose lock is held; the newest half of
 * the bytes, so that this is rare. */
static void shorten(const line_history *h)
{
    char target[PATH_MAX];
    buffer text = { 0 }, name = { 0 };
    size_t bytes = 0;
    int first = h->n;
    while (first > 0 && bytes < MAX_FILE_BYTES / 2) bytes += strlen(h->lines[--first]) + 1;
    for (int i = first; i < h->n; i++) {
        if (strlen(h->lines[i]) <= MAX_LINE_BYTES) add_escaped(&text, h->lines[i]);
    }
    if (realpath(h->path.data, target) != NULL) buffer_fmt(&name, "%s.%ld.tmp", target, (long)getpid());
    int fd = name.len > 0 && !name.failed && !text.failed
                 ? open(name.data, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)
                 : -1;
    if (fd >= 0) {
        int whole = write(fd, buffer_text(&text), text.len) == (ssize_t)text.len && fsync(fd) == 0;
        if (close(fd) != 0 || !whole || rename(name.data, target) != 0) unlink(name.data);
    }
    buffer_free(&text);
    buffer_free(&name);
}

void history_open(line_history *h)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    struct stat st;
    if (state != NULL && state[0] == '/')
        buffer_fmt(&h->path, "%s/gemma4/history", state);
    else if (home != NULL && home[0] == '/')
        buffer_fmt(&h->path, "%s/.local/state/gemma4/history", home);
    if (h->path.len == 0 || h->path.failed) return;
    int fd = make_folders(h->path.data) ? open_locked(h->path.data) : -1;
    if (fd < 0) {
        say(DONE, "your lines are not kept: cannot write %s: %s", h->path.data, strerror(errno));
        h->path.len = 0;
        return;
    }
    read_end(h, fd);
    if (fstat(fd, &st) == 0 && st.st_size > MAX_FILE_BYTES) shorten(h);
    close(fd);
}

void history_add(line_history *h, const char *line)
{
    buffer text = { 0 };
    if (!is_kept(h, line)) return;
    lines_add(h, line, strlen(line));
    if (h->path.len == 0 || strlen(line) > MAX_LINE_BYTES) return;
    add_escaped(&text, line);
    struct stat st;
    int fd = text.failed ? -1 : open_locked(h->path.data);
    if (fd >= 0) {
        int is_whole = fstat(fd, &st) != 0 || write(fd, text.data, text.len) == (ssize_t)text.len;
        if (!is_whole && ftruncate(fd, st.st_size) != 0) h->path.len = 0; /* half a line spoils the next: no more */
        close(fd);
    }
    buffer_free(&text);
}
