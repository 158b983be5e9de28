/* files.c - what every other file of the command line stands on: messages to the user, the signals that ask the program
 * to stop, the clock, and files read and written as a whole. A file that is being written has another name until it is
 * complete and on the disk: a failure or an interrupt leaves nothing behind, and the end of the program or a full disk,
 * whenever it comes, the old file or the new one. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- Messages --------------------------------------------------------------------------------- */

void write_harmless(FILE *f, const char *text, size_t len, text_use use)
{
    size_t from = 0, bytes;
    for (size_t i = 0; i < len; i += bytes) {
        if (is_harmless(text + i, len - i, use, &bytes)) continue;
        fwrite(text + from, 1, i - from, f);
        fputc('?', f);
        from = i + bytes;
    }
    if (from < len) fwrite(text + from, 1, len - from, f);
}

void show(FILE *f, const char *text, size_t len)
{
    if (isatty(fileno(f)))
        write_harmless(f, text, len, USE_TEXT);
    else if (len > 0)
        fwrite(text, 1, len, f);
}

int say(int status, const char *format, ...)
{
    char text[8192]; /* two paths and what is wrong with them; memory may be what there is none of */
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fputs("gemma4: ", stderr);
    write_harmless(stderr, text, strlen(text), USE_MESSAGE);
    fputs(n >= (int)sizeof text ? "...\n" : "\n", stderr);
    return status;
}

int report(const g4_error *err)
{
    int may_be_signal = err->code == G4_ERR_CANCELED || err->code == G4_ERR_IO; /* which ends a read that waits */
    if (may_be_signal && interrupted()) return interrupted();
    return say(FAILED, "%s", err->message);
}

int report_of(const char *name, const g4_error *err)
{
    return err->code == G4_ERR_CANCELED ? report(err) : say(FAILED, "%s: %s", name, err->message);
}

/* ---- Signals ---------------------------------------------------------------------------------- */

/* What a signal handler can reach: the signal that asked the program to stop, the flag that ends calls of the library,
 * and the file to remove if the program must stop at once. */
static volatile sig_atomic_t signal_seen;
static g4_cancel signal_flag;
static const char *volatile unfinished_path;

static void on_signal(int number)
{
    if (signal_seen != 0) { /* asked twice: the loops that look at the first signal are not getting there */
        if (unfinished_path != NULL) unlink(unfinished_path);
        terminal_restore();
        _exit(128 + number);
    }
    signal_seen = number;
    g4_cancel_set(&signal_flag);
}

void watch_signals(void)
{
    struct sigaction action = { .sa_handler = on_signal }; /* no SA_RESTART: a blocked read must notice */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (signal(SIGHUP, SIG_IGN) != SIG_IGN) sigaction(SIGHUP, &action, NULL); /* nohup ignores it already */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow so large is an error like a full disk */
}

/* A mapped file that is cut short, or whose disk fails, ends the program where it reads what is gone: with this line,
 * and with the terminal as it was. */
static char mapped_text[1024];

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    static atomic_flag is_told = ATOMIC_FLAG_INIT;
    (void)context;
    if (info->si_code <= 0) { /* sent by somebody */
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    while (atomic_flag_test_and_set(&is_told)) pause(); /* several threads read what is gone: one of them tells */
    terminal_restore();
    if (unfinished_path != NULL) unlink(unfinished_path);
    ssize_t written = write(STDERR_FILENO, mapped_text, strlen(mapped_text));
    (void)written; /* there is nobody left to tell */
    _exit(FAILED);
}

void watch_mapped(const char *path)
{
    struct sigaction action = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO };
    buffer name = { 0 };
    buffer_harmless(&name, path, strlen(path), USE_MESSAGE);
    snprintf(mapped_text, sizeof mapped_text,
             "gemma4: %.800s was cut short, or its disk failed, while it was in use: --no-mmap reads it into memory\n",
             name.failed ? "the model" : buffer_text(&name));
    buffer_free(&name);
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

int interrupted(void) { return signal_seen == 0 ? 0 : 128 + (int)signal_seen; }

void forget_interrupt(void)
{
    sigset_t ours, old; /* a signal between the two lines would lose its flag */
    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGHUP);
    sigprocmask(SIG_BLOCK, &ours, &old);
    if (signal_seen == SIGINT) {
        signal_seen = 0;
        g4_cancel_clear(&signal_flag);
    }
    sigprocmask(SIG_SETMASK, &old, NULL);
}

g4_limits until_interrupted(void) { return (g4_limits) { .cancel = &signal_flag }; }

int buffer_add_long(buffer *b, const void *data, size_t n)
{
    for (size_t pos = 0; pos < n && !b->failed; pos += LONG_PIECE) {
        if (interrupted()) return interrupted();
        buffer_add(b, (const char *)data + pos, n - pos < LONG_PIECE ? n - pos : LONG_PIECE);
    }
    return DONE;
}

/* ---- Clock ------------------------------------------------------------------------------------ */

double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double per_second(double n, double seconds) { return seconds > 0 ? n / seconds : 0; }

/* ---- Pipes with a name ------------------------------------------------------------------------ */

enum { LOOK = 10 }; /* milliseconds between two looks whether somebody has opened the other end */

/* Was there time enough to do so since `start`? */
static int is_lonely(double start, const char *path, const char *doing, const char *their_part)
{
    enum { PATIENCE = 10 }; /* seconds */
    if (interrupted()) return interrupted();
    if (seconds_now() - start <= PATIENCE) return DONE;
    return say(FAILED, "cannot %s %s: nobody has opened this pipe to %s it for %d seconds", doing, path, their_part,
               PATIENCE);
}

/* ---- Reading ---------------------------------------------------------------------------------- */

/* The first bytes of what is no plain file, or nothing: whoever writes into a pipe may take his time, once he is there.
 * One that nobody has opened reads like one that has ended, but poll sees no end of it. */
static int read_first(int fd, const char *path, buffer *out)
{
    const double start = seconds_now();
    char block[4096];
    for (;;) {
        struct pollfd ready = { .fd = fd, .events = POLLIN };
        const int is_ready = poll(&ready, 1, LOOK) > 0;
        if (interrupted()) return interrupted();
        const ssize_t n = read(fd, block, sizeof block);
        if (n > 0) buffer_add(out, block, (size_t)n);
        if (n != 0 || is_ready) return DONE; /* of an error the next read tells; without bytes yet there is a writer */
        const int status = is_lonely(start, path, "read", "write into");
        if (status != DONE) return status;
    }
}

int input_open(FILE **f, const char *path, buffer *out)
{
    struct stat st;
    int status = DONE;
    *f = stdin;
    if (strcmp(path, "-") == 0) return DONE;
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode)) status = read_first(fd, path, out);
    if (status == DONE) {
        const int is_blocking = fd >= 0 && fcntl(fd, F_SETFL, 0) == 0;
        *f = is_blocking ? fdopen(fd, "rb") : NULL;
        if (*f == NULL)
            status = interrupted() ? interrupted() : say(FAILED, "cannot read %s: %s", path, strerror(errno));
    }
    if (status != DONE && fd >= 0) close(fd);
    return status;
}

/* Until out holds `want` bytes or a few more, or the file ends. */
static int read_blocks(FILE *f, const char *name, uint64_t want, buffer *out)
{
    char block[65536];
    size_t n = sizeof block;
    while (n == sizeof block && out->len < want && !out->failed) {
        n = fread(block, 1, sizeof block, f);
        if (interrupted()) return interrupted();
        buffer_add(out, block, n);
        if (ferror(f)) return say(FAILED, "cannot read %s: %s", name, strerror(errno));
    }
    return out->failed ? say(FAILED, "no memory for %s", name) : DONE;
}

static int read_all(const char *path, uint64_t limit, buffer *out)
{
    const char *name = strcmp(path, "-") == 0 ? "standard input" : path;
    FILE *f;
    struct stat st;
    int status = input_open(&f, path, out);
    if (status != DONE) return status;
    const int is_long = fstat(fileno(f), &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size > limit;
    if (!is_long) status = read_blocks(f, name, limit + 1, out);
    if (f != stdin) fclose(f);
    if (status != DONE || (!is_long && out->len <= limit)) return status;
    return say(FAILED, "%s holds more than the %llu MiB that are read", name, (unsigned long long)limit >> 20);
}

int file_read(const char *path, buffer *out) { return read_all(path, (uint64_t)256 << 20, out); }
int medium_start(buffer *out) { return read_blocks(stdin, "standard input", MEDIUM_START, out); }
int medium_rest(buffer *out, uint64_t limit) { return read_all("-", limit, out); }

int regular_open(FILE **f, const char *path)
{
    struct stat st;
    *f = NULL;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC); /* a pipe would wait for its other end */
    if (fd < 0 && errno == ENOENT) return DONE;
    int is_regular = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    if (is_regular) *f = fdopen(fd, "rb");
    if (*f != NULL) return DONE;
    int status = fd < 0 || is_regular ? say(FAILED, "cannot read %s: %s", path, strerror(errno))
                                      : say(FAILED, "%s is a folder, a pipe or a device, and no file", path);
    if (fd >= 0) close(fd);
    return status;
}

/* The code unit at text[pos]; little: its first byte is the low one. */
static uint32_t utf16_unit(const unsigned char *text, size_t pos, int little)
{
    return (uint32_t)text[pos + (little ? 1 : 0)] << 8 | text[pos + (little ? 0 : 1)];
}

static void add_utf8(buffer *out, uint32_t code)
{
    char utf8[4];
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char heads[] = { 0, 0, 0xC0, 0xE0, 0xF0 };
    for (size_t i = n; i-- > 1; code >>= 6) utf8[i] = (char)(0x80 | (code & 0x3F));
    utf8[0] = (char)(heads[n] | code);
    buffer_add(out, utf8, n);
}

/* UTF-16 without its mark; what is no character becomes U+FFFD. */
static int add_utf16(buffer *out, const unsigned char *text, size_t len, int little)
{
    for (size_t pos = 0, ask = 0; pos < len; pos += 2) {
        if (pos >= ask) {
            if (interrupted()) return interrupted();
            ask = pos + LONG_PIECE;
        }
        uint32_t code = pos + 1 < len ? utf16_unit(text, pos, little) : 0xFFFD;
        if ((code & 0xFC00) == 0xD800 && pos + 3 < len) {
            uint32_t low = utf16_unit(text, pos + 2, little);
            if ((low & 0xFC00) == 0xDC00) {
                code = 0x10000 + ((code & 0x3FF) << 10) + (low & 0x3FF);
                pos += 2;
            }
        }
        add_utf8(out, (code & 0xFFFFF800) == 0xD800 ? 0xFFFD : code);
    }
    return DONE;
}

int source_read(const char *path, buffer *out)
{
    buffer bytes = { 0 };
    int status = file_read(path, &bytes);
    const unsigned char *s = (const unsigned char *)buffer_text(&bytes);
    const char *name = strcmp(path, "-") == 0 ? "standard input" : path;
    size_t n = bytes.len;
    if (status != DONE || n < 2) {
        buffer_add(out, s, n);
    } else if (n >= 4 && (memcmp(s, "\xFF\xFE\0\0", 4) == 0 || memcmp(s, "\0\0\xFE\xFF", 4) == 0)) {
        status = say(FAILED, "%s is UTF-32: save it as UTF-8", name);
    } else if (memcmp(s, "\xFF\xFE", 2) == 0 || memcmp(s, "\xFE\xFF", 2) == 0) {
        status = add_utf16(out, s + 2, n - 2, s[0] == 0xFF);
    } else if (s[0] == 0 || s[1] == 0) {
        status = say(FAILED, "%s looks like UTF-16 without a byte order mark: save it as UTF-8", name);
    } else {
        size_t mark = n >= 3 && memcmp(s, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
        status = buffer_add_long(out, s + mark, n - mark);
    }
    buffer_free(&bytes);
    if (status == DONE && out->failed) status = say(FAILED, "no memory for %s", name);
    return status;
}

/* *at: how many bytes of a text are well-formed UTF-8, up to the first that belongs to no character. */
static int utf8_start(const char *text, size_t n, size_t *at)
{
    uint32_t code;
    size_t ask = 0, bytes = 1;
    for (*at = 0; *at < n && bytes > 0; *at += bytes) {
        if (*at >= ask) {
            if (interrupted()) return interrupted();
            ask = *at + LONG_PIECE;
        }
        bytes = whole_character(text + *at, n - *at, &code);
    }
    return DONE;
}

int text_read(const char *path, buffer *out)
{
    const size_t from = out->len;
    int status = source_read(path, out);
    if (status != DONE) return status;
    const char *text = buffer_text(out) + from, *name = strcmp(path, "-") == 0 ? "standard input" : path;
    const size_t n = out->len - from;
    size_t at;
    status = utf8_start(text, n, &at);
    if (status != DONE || at == n) return status;
    return say(DONE, "%s: byte 0x%02X at offset %zu of the text is no UTF-8: it is read as a byte", name,
               (unsigned char)text[at], at);
}

/* ---- Writing ---------------------------------------------------------------------------------- */

int cannot_write(const char *path, int reason) { return say(FAILED, "cannot write %s: %s", path, strerror(reason)); }

/* Where path leads when its last part is a link, or a link to one, and so on. */
static int follow_links(const char *path, buffer *target)
{
    enum { MAX_LINKS = 40 }; /* as the system's own limit */
    char link[PATH_MAX];
    buffer_str(target, path);
    for (int i = 0; i < MAX_LINKS && !target->failed; i++) {
        ssize_t n = readlink(target->data, link, sizeof link - 1);
        if (n < 0) return DONE; /* no link, or nothing yet */
        const char *slash = strrchr(target->data, '/');
        target->len = link[0] == '/' || slash == NULL ? 0 : (size_t)(slash - target->data) + 1;
        buffer_add(target, link, (size_t)n);
    }
    return target->failed ? say(FAILED, "no memory for %s", path) : cannot_write(path, ELOOP);
}

/* The folder of a file, with the slash behind it; of one without a folder nothing. */
static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? 0 : (size_t)(slash - path) + 1;
}

/* A new file in the folder of o->target that nobody else has a name for. */
static int create_temporary(output_file *o, mode_t mode)
{
    enum { MAX_TRIES = 1000 }; /* names that others left behind */
    int fd = -1;
    for (int i = 0; fd < 0 && i < MAX_TRIES; i++) {
        o->temporary.len = 0;
        buffer_add(&o->temporary, o->target.data, folder_length(o->target.data));
        buffer_fmt(&o->temporary, ".gemma4.%ld.%d.tmp", (long)getpid(), i);
        if (o->temporary.failed) return -1;
        fd = open(o->temporary.data, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
        if (fd < 0 && errno != EEXIST) return -1;
    }
    return fd;
}

/* The new file belongs to whom the old one does, and may be read by as many; where it cannot be given away, by nobody
 * but us. */
static int keep_owner(int fd, const struct stat *old)
{
    struct stat st;
    if (fstat(fd, &st) != 0) return 0;
    int kept = st.st_uid == old->st_uid && st.st_gid == old->st_gid;
    if (!kept) kept = fchown(fd, old->st_uid, old->st_gid) == 0;
    return fchmod(fd, old->st_mode & (kept ? 0777 : 0700)) == 0;
}

static int open_temporary(output_file *o, const struct stat *old)
{
    int status = follow_links(o->path, &o->target);
    if (status != DONE) return status;
    if (old != NULL && access(o->target.data, W_OK) != 0) return cannot_write(o->path, errno);
    int fd = create_temporary(o, old != NULL ? 0600 : 0666);
    if (fd >= 0 && (old == NULL || keep_owner(fd, old))) o->f = fdopen(fd, "wb");
    if (o->f != NULL) {
        unfinished_path = o->temporary.data;
        return DONE;
    }
    status = o->temporary.failed ? say(FAILED, "no memory for %s", o->path) : cannot_write(o->path, errno);
    if (fd >= 0) {
        close(fd);
        unlink(o->temporary.data);
    }
    return status;
}

/* What is there and is no file: a pipe waits for whoever is to read it. */
static int open_directly(output_file *o, int is_pipe)
{
    const double start = seconds_now();
    int fd, status = DONE;
    while ((fd = open(o->path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)) < 0 && is_pipe && errno == ENXIO) {
        status = is_lonely(start, o->path, "write", "read from");
        if (status != DONE) return status;
        poll(NULL, 0, LOOK);
    }
    if (fd >= 0 && fcntl(fd, F_SETFL, 0) == 0) o->f = fdopen(fd, "wb");
    if (o->f != NULL) return DONE;
    status = cannot_write(o->path, errno);
    if (fd >= 0) close(fd);
    return status;
}

static void output_free(output_file *o)
{
    buffer_free(&o->target);
    buffer_free(&o->temporary);
}

int output_open(output_file *o, const char *path)
{
    struct stat st;
    *o = (output_file) { .path = path };
    if (strcmp(path, "-") == 0) {
        o->path = "standard output";
        o->f = stdout;
        return DONE;
    }
    int exists = stat(path, &st) == 0;
    if (exists && S_ISDIR(st.st_mode)) return cannot_write(path, EISDIR);
    if (exists && !S_ISREG(st.st_mode)) return open_directly(o, S_ISFIFO(st.st_mode));
    int status = open_temporary(o, exists ? &st : NULL);
    if (status != DONE) output_free(o);
    return status;
}

int output_write(void *o, const void *data, size_t size)
{
    output_file *out = o;
    return (size > 0 && fwrite(data, 1, size, out->f) != size) || interrupted(); /* no bytes may be no pointer */
}

/* A file that is complete gets its name. Both are on the disk before the old one is gone. */
static int take_name(const output_file *o)
{
    if (rename(o->temporary.data, o->target.data) != 0) return 0;
    o->target.data[folder_length(o->target.data)] = '\0';
    int folder = open(o->target.data[0] != '\0' ? o->target.data : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return 1;                                                 /* one that may not be read */
    int is_there = fsync(folder) == 0 || errno == EINVAL || errno == ENOTSUP; /* some file systems have no need of it */
    close(folder);
    return is_there;
}

int output_close(output_file *o, int status)
{
    if (o->f == NULL) return status;
    if (status == DONE) status = interrupted();
    int is_temporary = o->temporary.len > 0;
    int bad = fflush(o->f) != 0 || ferror(o->f) || (is_temporary && status == DONE && fsync(fileno(o->f)) != 0);
    int reason = errno;
    if (o->f != stdout && fclose(o->f) != 0) {
        bad = 1;
        reason = errno;
    }
    if (status == DONE && is_temporary && !bad && !take_name(o)) {
        bad = 1;
        reason = errno;
    }
    if (status == DONE && bad) status = cannot_write(o->path, reason);
    if (status != DONE && is_temporary) unlink(o->temporary.data);
    unfinished_path = NULL;
    output_free(o);
    o->f = NULL;
    return status;
}

int output_check(const char *path)
{
    struct stat st;
    output_file o;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) /* opening one may wait, or be noticed */
        return access(path, W_OK) == 0 ? DONE : cannot_write(path, errno);
    int status = output_open(&o, path);
    if (status == DONE) output_close(&o, FAILED); /* which removes it */
    return status;
}

/* How much of a text is written at once: up to the end of a character. */
static size_t piece_of(const char *text, size_t n)
{
    if (n <= LONG_PIECE) return n;
    size_t at = LONG_PIECE;
    while (at > LONG_PIECE - 4 && ((unsigned char)text[at] & 0xC0) == 0x80) at--;
    return at;
}

int print_buffer(const buffer *b)
{
    const char *text = buffer_text(b);
    if (b->failed) return say(FAILED, "no memory for the output");
    for (size_t pos = 0, n; pos < b->len && !ferror(stdout); pos += n) {
        if (pos > 0 && interrupted())
            return interrupted(); /* the first is also what an interrupted answer says of itself */
        n = piece_of(text + pos, b->len - pos);
        show(stdout, text + pos, n);
    }
    if (!ferror(stdout) && fflush(stdout) == 0) return DONE;
    return interrupted() ? interrupted() : cannot_write("standard output", errno);
}
