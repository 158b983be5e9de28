/* lines.c - the files of a batch: the lines with requests, and the answers in their order. An answer that waits for an
 * earlier one stands in OUT.part, so that whatever ends the program, what was answered is found again: a line is whole
 * once its newline is there. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Reading lines -------------------------------------------------------------------------------------- */

static int no_memory(const char *name) { return say(FAILED, "no memory for the lines of %s", name); }

/* Read up to a newline or the end into line, without the newline. Of a line above MAX_LINE only its beginning is kept;
 * *size tells its bytes with the newline, 0 at the end. */
static int read_line(FILE *f, const char *name, buffer *line, uint64_t *size, int *has_newline)
{
    char block[16384];
    line->len = 0;
    *size = 0;
    *has_newline = 0;
    while (!*has_newline) {
        if (interrupted()) return interrupted();
        errno = 0;
        size_t n = 0;
        for (int byte; n < sizeof block && (byte = getc_unlocked(f)) != EOF;) {
            block[n++] = (char)byte;
            if (byte != '\n') continue;
            *has_newline = 1;
            break;
        }
        if (ferror(f)) return say(FAILED, "cannot read %s: %s", name, strerror(errno));
        *size += n;
        if (line->len <= MAX_LINE) buffer_add(line, block, n - (size_t)*has_newline);
        if (line->failed) return no_memory(name);
        if (n == 0) break;
    }
    return DONE;
}

static int is_blank(const buffer *line)
{
    for (size_t i = 0; i < line->len && (i % LONG_PIECE != 0 || !interrupted()); i++)
        if (memchr(" \t\r", line->data[i], 3) == NULL) return 0;
    return 1;
}

/* ---- Requests ------------------------------------------------------------------------------------------- */

/* What comes from a pipe is kept in a file that has no name. */
static int spool(FILE **f, const char *name, const buffer *first)
{
    char block[65536];
    FILE *copy = tmpfile();
    int status = DONE, is_kept = copy != NULL && fwrite(buffer_text(first), 1, first->len, copy) == first->len;
    for (size_t n; is_kept && status == DONE && (n = fread(block, 1, sizeof block, *f)) > 0;) {
        is_kept = fwrite(block, 1, n, copy) == n;
        status = interrupted();
    }
    if (is_kept && status == DONE && ferror(*f)) status = say(FAILED, "cannot read %s: %s", name, strerror(errno));
    if (is_kept && status == DONE) is_kept = fflush(copy) == 0;
    if (!is_kept) status = say(FAILED, "cannot keep %s in a temporary file: %s", name, strerror(errno));
    if (copy == NULL) return status;
    if (*f != stdin) fclose(*f);
    *f = copy;
    rewind(copy);
    return status;
}

/* What of a line tells it from others: its bytes (FNV-1a). */
static uint64_t hash_line(const buffer *text)
{
    uint64_t h = 0xcbf29ce484222325u;
    size_t n = text->len;
    while (n > 0 && memchr("\r\n \t", text->data[n - 1], 4) != NULL) n--;
    for (size_t i = 0; i < n && (i % LONG_PIECE != 0 || !interrupted()); i++)
        h = (h ^ (unsigned char)text->data[i]) * 0x100000001b3u;
    return h;
}

/* The name that a line gives itself. What is wrong with the line is told when its turn comes. */
static int name_line(batch_line *l, const buffer *text)
{
    const g4_limits limits = until_interrupted();
    g4_batch_line read = { 0 };
    if (l->size <= MAX_LINE + 1) g4_batch_line_read(&read, buffer_text(text), text->len, &limits, NULL, NULL);
    l->is_named = read.custom_id != NULL;
    if (l->is_named) buffer_str(&l->id, read.custom_id);
    g4_batch_line_close(&read, NULL);
    return !l->id.failed;
}

/* The others are called "line-N", or so that no line calls itself anything like it. */
static int name_others(batch_lines *b)
{
    buffer name = { 0 };
    buffer_str(&name, "line-");
    for (size_t i = 0; i < b->n && !name.failed; i++) {
        const batch_line *l = &b->lines[i];
        if (!l->is_named || strncmp(buffer_text(&l->id), name.data, name.len) != 0) continue;
        buffer_str(&name, "line-");
        i = (size_t)-1; /* from the first on */
    }
    for (size_t i = 0; i < b->n && !name.failed && !interrupted(); i++) {
        batch_line *l = &b->lines[i];
        if (!l->is_named) buffer_fmt(&l->id, "%s%llu", name.data, (unsigned long long)l->number);
        name.failed |= l->id.failed;
    }
    int status = name.failed ? no_memory(b->name) : interrupted();
    buffer_free(&name);
    return status;
}

static int add_line(batch_lines *b, const buffer *text, uint64_t number, uint64_t at, uint64_t size)
{
    if (b->n == b->cap) {
        size_t cap = b->cap > 0 ? 2 * b->cap : 64;
        batch_line *bigger = realloc(b->lines, cap * sizeof *bigger);
        if (bigger == NULL) return 0;
        b->lines = bigger;
        b->cap = cap;
    }
    batch_line *l = &b->lines[b->n++];
    *l = (batch_line) { .number = number, .at = at, .size = size, .hash = hash_line(text) };
    return name_line(l, text);
}

static int compare_names(const void *x, const void *y)
{
    const batch_line *a = *(batch_line *const *)x, *b = *(batch_line *const *)y;
    int order = strcmp(buffer_text(&a->id), buffer_text(&b->id));
    return order != 0 ? order : a->number < b->number ? -1 : 1;
}

/* Lines by their names. Of several of one name the first is meant, and the others know which it is. */
static int sort_names(batch_lines *b)
{
    b->by_name = calloc(b->n + 1, sizeof *b->by_name);
    if (b->by_name == NULL) return no_memory(b->name);
    for (size_t i = 0; i < b->n; i++) b->by_name[i] = &b->lines[i];
    qsort(b->by_name, b->n, sizeof *b->by_name, compare_names);
    for (size_t i = 1; i < b->n; i++) {
        const batch_line *before = b->by_name[i - 1];
        if (strcmp(buffer_text(&before->id), buffer_text(&b->by_name[i]->id)) == 0)
            b->by_name[i]->twin_of = before->twin_of > 0 ? before->twin_of : before->number;
    }
    return DONE;
}

/* The line of that name, NULL: there is none. */
static batch_line *find_line(const batch_lines *b, const char *id)
{
    size_t low = 0, high = b->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(buffer_text(&b->by_name[middle]->id), id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < b->n && strcmp(buffer_text(&b->by_name[low]->id), id) == 0 ? b->by_name[low] : NULL;
}

static int read_lines(batch_lines *b)
{
    buffer text = { 0 };
    uint64_t at = 0, size = 1, number = 0;
    int status = DONE, has_newline;
    while (status == DONE && size > 0) {
        status = read_line(b->in, b->name, &text, &size, &has_newline);
        number++;
        if (at == 0 && text.len >= 3 && memcmp(text.data, "\xEF\xBB\xBF", 3) == 0) { /* a byte order mark */
            memmove(text.data, text.data + 3, text.len -= 3);
            at = 3;
            size -= 3;
        }
        int is_cut = size > MAX_LINE + 1; /* what follows its beginning may be a request */
        if (status == DONE && size > 0 && (is_cut || !is_blank(&text)) && !add_line(b, &text, number, at, size))
            status = no_memory(b->name);
        at += size;
    }
    buffer_free(&text);
    if (status == DONE && b->n == 0) status = say(FAILED, "%s holds no line to answer", b->name);
    if (status == DONE) status = name_others(b);
    return status == DONE ? sort_names(b) : status;
}

int batch_lines_open(batch_lines *b, const char *path)
{
    struct stat st;
    *b = (batch_lines) { .name = strcmp(path, "-") == 0 ? "standard input" : path };
    buffer first = { 0 };
    int status = input_open(&b->in, path, &first);
    if (status == DONE && (fstat(fileno(b->in), &st) != 0 || !S_ISREG(st.st_mode)))
        status = spool(&b->in, b->name, &first);
    buffer_free(&first);
    return status == DONE ? read_lines(b) : status;
}

int batch_lines_text(const batch_lines *b, const batch_line *l, buffer *out)
{
    out->len = 0;
    char *text = malloc((size_t)l->size + 1);
    if (text == NULL) return no_memory(b->name);
    size_t n = 0;
    for (ssize_t got = 1; n < l->size && got > 0; n += got > 0 ? (size_t)got : 0)
        got = pread(fileno(b->in), text + n, (size_t)l->size - n, (off_t)(l->at + n));
    buffer_add(out, text, n);
    free(text);
    while (out->len > 0 && memchr("\r\n", out->data[out->len - 1], 2) != NULL) out->len--;
    if (n < l->size) return say(FAILED, "%s was cut short while it was read", b->name);
    return out->failed ? no_memory(b->name) : DONE;
}

void batch_line_id(const batch_line *l, char out[BATCH_ID_SIZE])
{
    snprintf(out, BATCH_ID_SIZE, "batch_req_%016llx", (unsigned long long)l->hash);
}

void batch_lines_close(batch_lines *b)
{
    for (size_t i = 0; i < b->n; i++) buffer_free(&b->lines[i].id);
    free(b->lines);
    free(b->by_name);
    if (b->in != NULL && b->in != stdin) fclose(b->in);
}

/* ---- Answers -------------------------------------------------------------------------------------------- */

static int cannot_write_answers(const batch_answers *o, const char *name)
{
    return interrupted() ? interrupted() : cannot_write(name != NULL ? name : o->name, errno);
}

static int write_whole(const batch_answers *o, int fd, const char *name, const char *text, size_t size)
{
    for (size_t n = 0; n < size;) {
        ssize_t put = write(fd, text + n, size - n);
        if (put < 0 && errno != EINTR) return cannot_write_answers(o, name);
        if (put < 0 && interrupted()) return interrupted();
        if (put > 0) n += (size_t)put;
    }
    return DONE;
}

/* The file of those that wait. Without a name it goes with the program. */
static int open_part(batch_answers *o)
{
    if (o->part >= 0) return DONE;
    if (o->part_name.len > 0) {
        o->part = open(o->part_name.data, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    } else {
        FILE *f = tmpfile();
        o->part = f != NULL ? dup(fileno(f)) : -1;
        if (f != NULL) fclose(f);
    }
    return o->part >= 0 ? DONE : cannot_write_answers(o, o->part_name.data);
}

/* The answer to that line stands in OUT.part from now on. */
static int keep_answer(batch_answers *o, batch_line *l, const buffer *text)
{
    int status = open_part(o);
    off_t at = status == DONE ? lseek(o->part, 0, SEEK_END) : -1;
    if (status == DONE && at < 0) status = cannot_write_answers(o, o->part_name.data);
    if (status == DONE) status = write_whole(o, o->part, o->part_name.data, text->data, text->len);
    l->answer_at = (uint64_t)at;
    l->answer_size = text->len;
    return status;
}

/* Copy it from there. */
static int give_answer(const batch_answers *o, const batch_line *l)
{
    char block[65536];
    int status = DONE;
    for (uint64_t n = 0; status == DONE && n < l->answer_size;) {
        size_t want = l->answer_size - n < sizeof block ? (size_t)(l->answer_size - n) : sizeof block;
        ssize_t got = pread(o->part, block, want, (off_t)(l->answer_at + n));
        if (got <= 0)
            return say(FAILED, "cannot read %s again", o->part_name.len > 0 ? o->part_name.data : "an answer");
        status = write_whole(o, o->fd, NULL, block, (size_t)got);
        n += (uint64_t)got;
    }
    return status;
}

/* What stood in line behind the one that was just given. */
static int give_waiting(batch_answers *o)
{
    int status = DONE;
    while (status == DONE && o->next < o->lines->n && o->lines->lines[o->next].is_answered) {
        const batch_line *l = &o->lines->lines[o->next];
        if (l->answer_size > 0) status = give_answer(o, l);
        o->next++;
    }
    return status;
}

int batch_answers_add(batch_answers *o, batch_line *l, const buffer *text)
{
    if (text->failed) return say(FAILED, "no memory for an answer");
    l->is_answered = 1;
    int is_next = o->is_unordered || l == &o->lines->lines[o->next];
    int status = is_next ? write_whole(o, o->fd, NULL, text->data, text->len) : keep_answer(o, l, text);
    return status == DONE ? give_waiting(o) : status;
}

/* ---- Going on where another run ended --------------------------------------------------------------------- */

/* A line of former answers: those that succeeded stand in `copy` from now on, and count. */
static int take_answer(batch_answers *o, FILE *copy, const char *name, const buffer *text, uint64_t number)
{
    const g4_limits limits = until_interrupted();
    g4_batch_line read;
    g4_error err;
    if (g4_batch_line_read(&read, buffer_text(text), text->len, &limits, NULL, &err) != G4_OK || !read.is_answer) {
        g4_batch_line_close(&read, NULL);
        if (interrupted()) return interrupted();
        return say(FAILED, "%s: line %llu is no answer of a batch: --resume would overwrite it", name,
                   (unsigned long long)number);
    }
    batch_line *l = read.custom_id != NULL ? find_line(o->lines, read.custom_id) : NULL;
    int status = DONE;
    char id[BATCH_ID_SIZE];
    if (l != NULL) batch_line_id(l, id);
    if (l == NULL) {
        status = say(FAILED, "%s answers \"%s\", and no line of %s is called so: is it of another file?", name,
                     read.custom_id != NULL ? read.custom_id : "", o->lines->name);
    } else if (read.id == NULL || strcmp(read.id, id) != 0) {
        o->n_others++;
    } else if (read.has_succeeded && !l->is_answered) {
        l->is_answered = 1;
        l->answer_at = (uint64_t)ftello(copy);
        l->answer_size = text->len + 1;
        if (fwrite(text->data, 1, text->len, copy) != text->len || putc('\n', copy) == EOF)
            status = cannot_write_answers(o, o->part_name.data);
        o->n_resumed++;
    }
    g4_batch_line_close(&read, NULL);
    return status;
}

/* The answers in a file that may not be there; a last line without its end is none. */
static int take_answers(batch_answers *o, FILE *copy, const char *name)
{
    FILE *f;
    buffer text = { 0 };
    uint64_t size = 1, number = 0;
    int has_newline, status = regular_open(&f, name);
    if (status != DONE || f == NULL) return status;
    while (status == DONE && size > 0) {
        status = read_line(f, name, &text, &size, &has_newline);
        number++;
        if (status == DONE && has_newline && !is_blank(&text)) status = take_answer(o, copy, name, &text, number);
    }
    buffer_free(&text);
    fclose(f);
    return status;
}

/* What a killed program has left there goes; where a link of that name leads, nothing is written. */
static FILE *open_copy(const char *path)
{
    unlink(path);
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    FILE *f = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (fd >= 0 && f == NULL) close(fd);
    return f;
}

/* What is answered stands in OUT.part, all of it, before OUT is emptied to be written in order. */
static int resume(batch_answers *o)
{
    buffer temporary = { 0 };
    buffer_fmt(&temporary, "%s.tmp", o->part_name.data);
    if (temporary.failed) return say(FAILED, "no memory for the answers");
    FILE *copy = open_copy(temporary.data);
    int status = copy != NULL ? DONE : cannot_write_answers(o, temporary.data);
    if (status == DONE) status = take_answers(o, copy, o->name);
    if (status == DONE) status = take_answers(o, copy, o->part_name.data);
    if (status == DONE && (fflush(copy) != 0 || fsync(fileno(copy)) != 0))
        status = cannot_write_answers(o, temporary.data);
    if (copy != NULL && fclose(copy) != 0 && status == DONE) status = cannot_write_answers(o, temporary.data);
    if (status == DONE && rename(temporary.data, o->part_name.data) != 0)
        status = cannot_write_answers(o, o->part_name.data);
    if (status != DONE && copy != NULL) unlink(temporary.data);
    buffer_free(&temporary);
    if (status != DONE) return status;
    o->part = open(o->part_name.data, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (o->part < 0) return cannot_write_answers(o, o->part_name.data);
    return ftruncate(o->fd, 0) == 0 ? DONE : cannot_write_answers(o, NULL);
}

/* What stands in order already is given; without an order, all of it. */
static int give_resumed(batch_answers *o)
{
    int status = DONE;
    if (!o->is_unordered) return give_waiting(o);
    for (size_t i = 0; status == DONE && i < o->lines->n; i++) {
        if (!o->lines->lines[i].is_answered) continue;
        status = give_answer(o, &o->lines->lines[i]);
        o->lines->lines[i].answer_size = 0;
    }
    return status;
}

/* ---- Opening and closing --------------------------------------------------------------------------------- */

static int refuse_answers(const char *path)
{
    return say(FAILED, "%s holds answers: --resume goes on with them, or remove it", path);
}

static int open_file(batch_answers *o, const char *path, int resumes)
{
    struct stat st;
    buffer_fmt(&o->part_name, "%s.part", path);
    if (o->part_name.failed) return say(FAILED, "no memory for the answers");
    if (!resumes && access(o->part_name.data, F_OK) == 0) return refuse_answers(o->part_name.data); /* makes no file */
    o->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (o->fd < 0) return cannot_write_answers(o, NULL);
    if (flock(o->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return say(FAILED, "%s is being written by another batch", path);
    if (!resumes && fstat(o->fd, &st) == 0 && st.st_size > 0) return refuse_answers(path);
    int status = resumes ? resume(o) : DONE;
    return status == DONE ? give_resumed(o) : status;
}

/* Standard output, a pipe or a device. */
static int open_stream(batch_answers *o, const char *path)
{
    output_file out;
    int status = output_open(&out, path);
    if (status != DONE) return status;
    o->name = out.path;
    o->fd = dup(fileno(out.f));
    if (o->fd < 0) status = cannot_write_answers(o, NULL);
    return output_close(&out, status);
}

int batch_answers_open(batch_answers *o, batch_lines *lines, const char *path, int resumes, int is_unordered)
{
    struct stat st;
    *o = (batch_answers) { .lines = lines,
                           .name = path != NULL ? path : "standard output",
                           .fd = -1,
                           .part = -1,
                           .is_unordered = is_unordered };
    if (path == NULL || strcmp(path, "-") == 0) return open_stream(o, "-");
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        if (resumes) return say(FAILED, "%s is a folder, a pipe or a device: --resume needs a file", path);
        return open_stream(o, path);
    }
    return open_file(o, path, resumes);
}

int batch_answers_close(batch_answers *o, int status)
{
    int is_whole = o->fd >= 0 && (o->is_unordered || o->next == o->lines->n);
    if (o->fd >= 0 && o->part_name.len > 0 && fsync(o->fd) != 0 && status == DONE)
        status = cannot_write_answers(o, NULL);
    if (o->part >= 0) close(o->part);
    /* While OUT is locked: the next that has it may make its own. */
    if (o->part >= 0 && is_whole && status == DONE && o->part_name.len > 0) unlink(o->part_name.data);
    if (o->fd >= 0 && close(o->fd) != 0 && status == DONE) status = cannot_write_answers(o, NULL);
    buffer_free(&o->part_name);
    return status;
}
