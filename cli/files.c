/* files.c - what every other file of the command line stands on: messages to the user, the signals that ask the program
 * to stop, the clock, and files read and written as a whole. A file that is being written has another name until it is
 * complete, so that a failure or an interrupt leaves nothing behind. */
#include "cli.h"

#include <errno.h>
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

/* ---- Clock ------------------------------------------------------------------------------------ */

double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double per_second(double n, double seconds) { return seconds > 0 ? n / seconds : 0; }

/* ---- Reading ---------------------------------------------------------------------------------- */

/* A pipe that nobody writes to is waited for, until a signal ends that. */
static int read_all(const char *path, uint64_t limit, buffer *out)
{
    int is_stdin = strcmp(path, "-") == 0, status = DONE;
    const char *name = is_stdin ? "standard input" : path;
    FILE *f = is_stdin ? stdin : fopen(path, "rb");
    char block[65536];
    size_t n = sizeof block;
    if (f == NULL && interrupted()) return interrupted();
    if (f == NULL) return say(FAILED, "cannot read %s: %s", path, strerror(errno));
    while (status == DONE && n == sizeof block) {
        n = fread(block, 1, sizeof block, f);
        status = interrupted();
        if (status != DONE) break;
        buffer_add(out, block, n);
        if (ferror(f))
            status = say(FAILED, "cannot read %s: %s", name, strerror(errno));
        else if (out->len > limit)
            status =
                say(FAILED, "%s holds more than the %llu MiB that are read", name, (unsigned long long)limit >> 20);
    }
    if (!is_stdin) fclose(f);
    if (status == DONE && out->failed) status = say(FAILED, "no memory for %s", name);
    return status;
}

int file_read(const char *path, buffer *out) { return read_all(path, (uint64_t)256 << 20, out); }
int medium_read(const char *path, buffer *out) { return read_all(path, (uint64_t)4096 << 20, out); }

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
static void add_utf16(buffer *out, const unsigned char *text, size_t len, int little)
{
    for (size_t pos = 0; pos < len; pos += 2) {
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
}

int text_read(const char *path, buffer *out)
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
        add_utf16(out, s + 2, n - 2, s[0] == 0xFF);
    } else if (s[0] == 0 || s[1] == 0) {
        status = say(FAILED, "%s looks like UTF-16 without a byte order mark: save it as UTF-8", name);
    } else {
        size_t mark = n >= 3 && memcmp(s, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
        buffer_add(out, s + mark, n - mark);
    }
    buffer_free(&bytes);
    if (status == DONE && out->failed) status = say(FAILED, "no memory for %s", name);
    return status;
}

/* ---- Writing ---------------------------------------------------------------------------------- */

static int cannot_write(const char *path, int reason)
{
    return say(FAILED, "cannot write %s: %s", path, strerror(reason));
}

static int open_temporary(output_file *o)
{
    buffer_fmt(&o->temporary, "%s.%ld.tmp", o->path, (long)getpid());
    if (o->temporary.failed) return say(FAILED, "no memory for %s", o->path);
    o->f = fopen(o->temporary.data, "wb");
    if (o->f != NULL) {
        unfinished_path = o->temporary.data;
        return DONE;
    }
    int status = cannot_write(o->path, errno);
    buffer_free(&o->temporary);
    return status;
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
    if (stat(path, &st) != 0 || S_ISREG(st.st_mode)) return open_temporary(o);
    if (S_ISDIR(st.st_mode)) return cannot_write(path, EISDIR);
    o->f = fopen(path, "wb");
    return o->f != NULL ? DONE : cannot_write(path, errno);
}

int output_write(void *o, const void *data, size_t size)
{
    output_file *out = o;
    return (size > 0 && fwrite(data, 1, size, out->f) != size) || interrupted(); /* no bytes may be no pointer */
}

int output_close(output_file *o, int status)
{
    if (o->f == NULL) return status;
    if (status == DONE) status = interrupted();
    int bad = fflush(o->f) != 0 || ferror(o->f);
    int reason = errno;
    if (o->f != stdout && fclose(o->f) != 0) {
        bad = 1;
        reason = errno;
    }
    if (status == DONE && o->temporary.len > 0 && !bad && rename(o->temporary.data, o->path) != 0) {
        bad = 1;
        reason = errno;
    }
    if (status == DONE && bad) status = cannot_write(o->path, reason);
    if (status != DONE && o->temporary.len > 0) unlink(o->temporary.data);
    unfinished_path = NULL;
    buffer_free(&o->temporary);
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

int print_buffer(const buffer *b)
{
    if (b->failed) return say(FAILED, "no memory for the output");
    show(stdout, buffer_text(b), b->len);
    if (!ferror(stdout) && fflush(stdout) == 0) return DONE;
    return cannot_write("standard output", errno);
}
