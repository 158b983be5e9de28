/* child.c - a program run to its end, or to the end of the call: its standard output goes to a sink as it comes, the
 * first line of its messages is kept, and how it ended is known whatever the host does with signals.
 *
 * A parent learns how a child ended from waitpid alone, and does not when the host ignores SIGCHLD or reaps every child
 * itself: the system then throws the number away. So the program is not our child but that of a watcher, whose signals
 * are its own: /bin/sh with a fixed script, which starts the program, and writes its process id and later its
 * exit status to a pipe of ours. The alternative, a fork of this process, would copy the page tables of a loaded model,
 * and no library may count on fork where threads run. Names and arguments are passed as words that the shell does not
 * read. Where there is no /bin/sh, the program is started directly, and waitpid must do.
 *
 * Only the program is killed; the watcher then reaps it and ends by itself. So nothing is left behind, even where this
 * process is the first of a container, and a program that has ended cannot be taken for another one: its id stays its
 * own until the watcher has reaped it.
 *
 * The watcher also sets the limits that the system keeps: memory, and processor time in case that nobody is left here
 * to end the program. What the system does not limit, or the watcher may not, stays unlimited. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ; /* the program runs in the environment of this process */

/* ---- File descriptors ------------------------------------------------------------------------
 *
 * All of ours are born close-on-exec, so that no program that another thread starts at the same moment inherits them: a
 * pipe that it held open would never end. macOS has no pipe2, and there a gap of two system calls is left; our own
 * children inherit nothing but what they are given there too. */

#define G4_FD_FIRST 5 /* those below are what the watcher uses */

int g4_fd_raise(int fd)
{
    if (fd < 0 || fd >= G4_FD_FIRST) return fd;
    const int raised = fcntl(fd, F_DUPFD_CLOEXEC, G4_FD_FIRST), reason = errno;
    close(fd);
    errno = reason;
    return raised;
}

int g4_fd_copy(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, G4_FD_FIRST); }

/* ---- A temporary file ----------------------------------------------------------------------- */

#define G4_SPILL_PIECE (1 << 20) /* bytes: a write to a disk ends before long */

/* A nameless temporary file. -1: failed, for errno's reason. */
static int g4_temporary_file(void)
{
    char name[] = P_tmpdir "/g4-XXXXXX";
#ifdef __APPLE__
    const int fd = mkstemp(name);
    if (fd >= 0) fcntl(fd, F_SETFD, FD_CLOEXEC);
#else
    const int fd = mkostemp(name, O_CLOEXEC);
#endif
    if (fd >= 0) unlink(name);
    return g4_fd_raise(fd);
}

g4_status g4_media_spill(const g4_media_limits *m, const uint8_t *data, size_t size, int *fd, g4_error *err)
{
    *fd = g4_temporary_file();
    size_t done = 0;
    while (*fd >= 0 && done < size && !g4_halted(m->halt)) {
        const size_t left = size - done;
        const ssize_t n = write(*fd, data + done, left < G4_SPILL_PIECE ? left : G4_SPILL_PIECE);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        done += (size_t)n;
    }
    if (done == size && *fd >= 0) return G4_OK;
    g4_status s = g4_halt_check(m->halt, err);
    if (!s) s = g4_fail(err, G4_ERR_IO, "cannot write %zu bytes to a temporary file: %s", size, strerror(errno));
    if (*fd >= 0) close(*fd);
    *fd = -1;
    return s;
}

/* ---- Pipes ----------------------------------------------------------------------------------- */

static void g4_close_end(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* ends: to read, to write. Nonzero: failed, for errno's reason. */
static int g4_open_pipe(int ends[2])
{
#ifdef __APPLE__
    const int failed = pipe(ends) != 0;
#else
    const int failed = pipe2(ends, O_CLOEXEC) != 0;
#endif
    if (failed) {
        ends[0] = ends[1] = -1;
        return 1;
    }
    ends[0] = g4_fd_raise(ends[0]);
    ends[1] = g4_fd_raise(ends[1]);
    if (ends[0] < 0 || ends[1] < 0) return 1;
    return fcntl(ends[0], F_SETFD, FD_CLOEXEC) == -1 || fcntl(ends[1], F_SETFD, FD_CLOEXEC) == -1;
}

/* ---- Starting -------------------------------------------------------------------------------- */

/* The program gets our input, which the shell would replace for a program in the background, and neither of the two
 * descriptors that serve the script. */
static const char g4_watcher_script[] = "ulimit -t \"$1\" 2>/dev/null\n" /* seconds */
                                        "ulimit -d \"$2\" 2>/dev/null\n" /* KiB */
                                        "ulimit -c 0\n"
                                        "shift 2\n"
                                        "exec 4<&0\n"
                                        "exec \"$@\" <&4 3>&- 4<&- &\n"
                                        "exec 4<&- >/dev/null\n"
                                        "echo $! >&3\n"
                                        "wait $!\n"
                                        "echo $? >&3\n";

enum { G4_WATCHER_WORDS = 6 }; /* before those of the program */
enum { G4_CHILD_OUT, G4_CHILD_MESSAGES, G4_CHILD_REPORT, G4_CHILD_PIPES };

typedef struct {
    pid_t pid; /* our child: the watcher, or the program where there is no watcher */
    int is_watched;
    int pipes[G4_CHILD_PIPES][2]; /* -1: closed */
    char report[64];              /* of the watcher: two lines of a number each */
    size_t n_report;
    int line_ended, in_address; /* of its messages */
    size_t n_said;
    g4_child_end *end;
} g4_child;

/* The program starts with no signal blocked, SIGPIPE ending it, SIGCHLD not ignored. Returns 0 or an errno. */
static int g4_child_signals(posix_spawnattr_t *attributes)
{
    sigset_t none, usual;
    sigemptyset(&none);
    sigemptyset(&usual);
    sigaddset(&usual, SIGPIPE);
    sigaddset(&usual, SIGCHLD);
    short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP; /* Ctrl-C is for the host */
#ifdef POSIX_SPAWN_CLOEXEC_DEFAULT
    flags |= POSIX_SPAWN_CLOEXEC_DEFAULT;
#endif
    int rc = posix_spawnattr_setsigmask(attributes, &none);
    if (!rc) rc = posix_spawnattr_setsigdefault(attributes, &usual);
    if (!rc) rc = posix_spawnattr_setpgroup(attributes, 0);
    return rc ? rc : posix_spawnattr_setflags(attributes, flags);
}

/* Where its descriptors come from. */
static int g4_child_descriptors(const g4_child *p, posix_spawn_file_actions_t *actions, int in)
{
    int rc = in >= 0 ? posix_spawn_file_actions_adddup2(actions, in, 0)
                     : posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
    const int n = p->is_watched ? G4_CHILD_PIPES : G4_CHILD_REPORT;
    for (int i = 0; !rc && i < n; i++) rc = posix_spawn_file_actions_adddup2(actions, p->pipes[i][1], 1 + i);
    return rc;
}

static int g4_child_spawn(g4_child *p, char *const *arguments, int in)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc) return rc;
    rc = posix_spawnattr_init(&attributes);
    if (!rc) {
        rc = g4_child_signals(&attributes);
        if (!rc) rc = g4_child_descriptors(p, &actions, in);
        if (!rc) rc = posix_spawnp(&p->pid, arguments[0], &actions, &attributes, arguments, environ);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

/* The watcher's words and those given (NULL at the end), whose strings are in *text. NULL: out of memory. A program
 * that keeps all processors busy is not ended before its time. */
static char **g4_child_words(const g4_media_limits *m, const char *const *words, int seconds, g4_buf *text)
{
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    char cpu[24], memory[24] = "unlimited";
    snprintf(cpu, sizeof cpu, "%lld", (long long)seconds * (processors > 0 ? processors : 1) + 1);
    if (m->max_program_bytes < UINT64_MAX) snprintf(memory, sizeof memory, "%" PRIu64, m->max_program_bytes / 1024);
    const char *const watcher[G4_WATCHER_WORDS] = { "/bin/sh", "-c", g4_watcher_script, "sh", cpu, memory };
    size_t n = G4_WATCHER_WORDS;
    for (size_t i = 0; i < G4_WATCHER_WORDS; i++) g4_buf_add(text, watcher[i], strlen(watcher[i]) + 1);
    for (size_t i = 0; words[i]; i++, n++) g4_buf_add(text, words[i], strlen(words[i]) + 1);
    char **list = text->failed ? NULL : g4_alloc(m->a, n + 1, sizeof *list);
    if (!list) return NULL;
    char *p = text->data;
    for (size_t i = 0; i < n; i++, p += strlen(p) + 1) list[i] = p;
    return list;
}

/* Returns 0 or an errno. */
static int g4_child_start(g4_child *p, char *const *words, int in)
{
    for (int i = 0; i < G4_CHILD_PIPES; i++)
        if (g4_open_pipe(p->pipes[i])) return errno;
    p->is_watched = 1;
    int rc = g4_child_spawn(p, words, in);
    if (rc == ENOENT || rc == EACCES) {
        p->is_watched = 0;
        rc = g4_child_spawn(p, words + G4_WATCHER_WORDS, in);
    }
    for (int i = 0; i < G4_CHILD_PIPES; i++) g4_close_end(&p->pipes[i][1]); /* the ends of others */
    return rc;
}

/* ---- Running --------------------------------------------------------------------------------- */

#define G4_CHILD_WAIT 10 /* milliseconds after which the halt is asked again */

/* Keep the printable characters of its first line, which says most. ffmpeg puts addresses behind its names, as in
 * "[mp3 @ 0x55d0a2]"; they differ from run to run and are left out. */
static void g4_child_hear(g4_child *p, const uint8_t *data, size_t n)
{
    static const char mark[] = " @ 0x";
    const size_t n_mark = sizeof mark - 1;
    char *said = p->end->said;
    for (size_t i = 0; i < n && !p->line_ended; i++) {
        p->line_ended = p->n_said > 0 && (data[i] == '\n' || data[i] == '\r');
        if (data[i] < 32 || data[i] >= 127 || p->n_said + 1 == sizeof p->end->said) continue;
        if (p->in_address && strchr("0123456789abcdef", data[i])) continue;
        said[p->n_said++] = (char)data[i];
        p->in_address = p->n_said >= n_mark && !memcmp(said + p->n_said - n_mark, mark, n_mark);
        if (p->in_address) p->n_said -= n_mark;
    }
    said[p->n_said] = 0;
}

/* What the watcher wrote: the program's id and its status, as far as they are there. Returns how many are. */
static int g4_child_report(const g4_child *p, pid_t *program, int *status)
{
    long numbers[2];
    const char *line = p->report;
    int n = 0;
    for (const char *end; n < 2 && (end = strchr(line, '\n')) != NULL; line = end + 1)
        numbers[n++] = strtol(line, NULL, 10);
    if (n > 0) *program = (pid_t)numbers[0];
    if (n > 1) *status = (int)numbers[1];
    return n;
}

/* A piece of what comes from a pipe, which is closed at its end. Nonzero: the sink has enough. */
static int g4_child_read(g4_child *p, int which, g4_sink_fn sink, void *ctx)
{
    uint8_t chunk[65536];
    const ssize_t got = read(p->pipes[which][0], chunk, sizeof chunk);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return 0;
    if (got <= 0) {
        g4_close_end(&p->pipes[which][0]);
    } else if (which == G4_CHILD_OUT) {
        return sink(ctx, chunk, (size_t)got);
    } else if (which == G4_CHILD_MESSAGES) {
        g4_child_hear(p, chunk, (size_t)got);
    } else {
        for (ssize_t i = 0; i < got && p->n_report + 1 < sizeof p->report; i++)
            p->report[p->n_report++] = (char)chunk[i];
    }
    return 0;
}

/* Read all pipes that are open, until they end or the sink has enough, which returns nonzero, or it is late, or the
 * call is halted. */
static int g4_child_drain(g4_child *p, int seconds, g4_sink_fn sink, void *ctx, g4_halt *halt)
{
    const double deadline = g4_seconds() + seconds;
    for (;;) {
        struct pollfd fds[G4_CHILD_PIPES];
        int n_open = 0;
        for (int i = 0; i < G4_CHILD_PIPES; i++) {
            fds[i] = (struct pollfd) { p->pipes[i][0], POLLIN, 0 }; /* poll skips those below 0 */
            n_open += fds[i].fd >= 0;
        }
        if (n_open == 0 || g4_halted(halt)) return 0;
        p->end->is_late = g4_seconds() > deadline;
        if (p->end->is_late) return 0;
        const int ready = poll(fds, G4_CHILD_PIPES, G4_CHILD_WAIT);
        if (ready < 0 && errno != EINTR) return 0;
        for (int i = 0; ready > 0 && i < G4_CHILD_PIPES; i++)
            if (fds[i].revents && g4_child_read(p, i, sink, ctx)) return 1;
    }
}

/* End the program. Its id may still be on its way. */
static void g4_child_kill(g4_child *p)
{
    pid_t program = -1;
    int status;
    g4_close_end(&p->pipes[G4_CHILD_OUT][0]);
    g4_close_end(&p->pipes[G4_CHILD_MESSAGES][0]);
    if (!p->is_watched) kill(p->pid, SIGKILL);
    for (int killed = 0; p->pipes[G4_CHILD_REPORT][0] >= 0;) {
        if (!killed && g4_child_report(p, &program, &status) == 1 && program > 1) killed = kill(program, SIGKILL) == 0;
        g4_child_read(p, G4_CHILD_REPORT, NULL, NULL);
    }
}

/* How it ended, as a shell says it: its exit status, or 128 + the signal that ended it; -1 when nobody knows. */
static int g4_child_reap(const g4_child *p)
{
    pid_t program;
    int status = 0, reported = -1;
    pid_t got;
    do got = waitpid(p->pid, &status, 0);
    while (got < 0 && errno == EINTR);
    g4_child_report(p, &program, &reported);
    if (p->is_watched) return reported;
    return got < 0 ? -1 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

g4_status g4_child_run(const g4_media_limits *m, const char *const *words, int in, int seconds, g4_sink_fn sink,
                       void *ctx, g4_child_end *end, g4_error *err)
{
    g4_child p = { .pid = -1, .end = end };
    g4_buf text = { m->a, NULL, 0, 0, 0 };
    *end = (g4_child_end) { .status = -1 };
    for (int i = 0; i < G4_CHILD_PIPES; i++) p.pipes[i][0] = p.pipes[i][1] = -1;
    char **list = g4_child_words(m, words, seconds, &text);
    if (list) end->reason = g4_child_start(&p, list, in);
    const int is_running = list && !end->reason;
    if (is_running) {
        end->is_stopped = g4_child_drain(&p, seconds, sink, ctx, m->halt);
        if (p.pipes[G4_CHILD_OUT][0] >= 0 || p.pipes[G4_CHILD_REPORT][0] >= 0) g4_child_kill(&p);
        end->status = g4_child_reap(&p);
    }
    for (int i = 0; i < G4_CHILD_PIPES; i++) {
        g4_close_end(&p.pipes[i][0]);
        g4_close_end(&p.pipes[i][1]);
    }
    g4_free(m->a, list);
    g4_buf_free(&text);
    if (!list) return g4_fail(err, G4_ERR_MEMORY, "%.60s: out of memory", words[0]);
    return g4_halt_check(m->halt, err);
}
