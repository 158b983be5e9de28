/* serve_client.h - a server of the program gemma4 in a process of its own, and a client of it on plain sockets. */
#ifndef G4_SERVE_CLIENT_H
#define G4_SERVE_CLIENT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* sockets, rand_r, kill under -std=c11 */
#endif

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MODEL "models/tiny.g4"
enum { TEXT = 4 << 20 };

static inline double g4_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline void g4_nap(double seconds)
{
    const struct timespec t = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };
    nanosleep(&t, NULL);
}

/* ---- A server ---------------------------------------------------------------------------------------------------- */

typedef struct {
    pid_t pid;
    int port;
} g4_server;

/* Start it with more options, ended by NULL; port 0: it did not come up. */
static inline g4_server g4_serve(const char *const *more)
{
    const char *program = getenv("G4_PROGRAM"), *argv[32] = { "gemma4", "serve", "-m", MODEL, "--port", "0" };
    g4_server s = { 0 };
    int n = 6, out[2];
    if (program == NULL) program = "./gemma4";
    while (*more != NULL && n < 31) argv[n++] = *more++;
    if (pipe(out) != 0) return s;
    s.pid = fork();
    if (s.pid == 0) {
        dup2(out[1], 2);
        close(out[0]);
        close(out[1]);
        execv(program, (char *const *)(void *)argv);
        _exit(127);
    }
    close(out[1]);
    char line[4096];
    size_t len = 0;
    for (ssize_t got; len < sizeof line - 1 && (got = read(out[0], line + len, sizeof line - 1 - len)) > 0;) {
        len += (size_t)got;
        line[len] = '\0';
        const char *at = strstr(line, "listening on http://127.0.0.1:");
        if (at != NULL && strchr(at, '\n') != NULL) {
            s.port = atoi(at + strlen("listening on http://127.0.0.1:"));
            break;
        }
    }
    close(out[0]); /* what it says from now on nobody reads: that must not end it */
    return s;
}

/* Its exit status once it has ended, which it is asked to; -1: it did not within 10 s. */
static inline int g4_wait(pid_t pid)
{
    int status;
    for (double until = g4_now() + 10; g4_now() < until; g4_nap(0.01)) {
        if (waitpid(pid, &status, WNOHANG) == pid) return WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
    }
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -1;
}

static inline int g4_stop(const g4_server *s)
{
    kill(s->pid, SIGTERM);
    return g4_wait(s->pid);
}

/* Entries of a folder of /proc. */
static inline int g4_count(const g4_server *s, const char *what)
{
    char path[64];
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/%s", (int)s->pid, what);
    DIR *d = opendir(path);
    while (d != NULL && readdir(d) != NULL) n++;
    if (d != NULL) closedir(d);
    return n;
}

/* ---- A client ---------------------------------------------------------------------------------------------------- */

static inline int g4_connect(const g4_server *s)
{
    const struct sockaddr_in a = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)s->port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    const int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(fd, (const struct sockaddr *)&a, sizeof a) == 0) return fd;
    close(fd);
    return -1;
}

static inline void g4_send(int fd, const char *text, size_t n)
{
    while (n > 0) {
        const ssize_t sent = send(fd, text, n, MSG_NOSIGNAL);
        if (sent <= 0) return;
        text += sent;
        n -= (size_t)sent;
    }
}

/* A request of that method, path, header lines and body, in memory to be freed. */
static inline char *g4_request_text(const char *method, const char *path, const char *fields, const char *body)
{
    const size_t n = strlen(body), size = n + strlen(fields) + 512;
    char *text = malloc(size);
    const int head = snprintf(text, size, "%s %s HTTP/1.1\r\nHost: localhost\r\n%s", method, path, fields);
    if (strcmp(method, "POST") == 0)
        snprintf(text + head, size - (size_t)head, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", n,
                 body);
    else
        snprintf(text + head, size - (size_t)head, "\r\n");
    return text;
}

/* Bytes into text, whose length is *len, for so long; 0: the server has closed it, -1: nothing came. */
static inline ssize_t g4_receive(int fd, char *text, size_t *len, double seconds)
{
    struct pollfd ready = { .fd = fd, .events = POLLIN };
    if (poll(&ready, 1, (int)(1000 * seconds)) <= 0) return -1;
    const ssize_t n = recv(fd, text + *len, TEXT - 1 - *len, 0);
    if (n > 0) *len += (size_t)n;
    text[*len] = '\0';
    return n < 0 ? 0 : n;
}

/* Is a whole answer at the start of text? Its bytes, else 0. */
static inline size_t g4_whole(const char *text)
{
    const char *body = strstr(text, "\r\n\r\n"), *length = strstr(text, "Content-Length: ");
    if (body == NULL) return 0;
    body += 4;
    if (strncmp(text, "HTTP/1.1 100", 12) == 0) return (size_t)(body - text);
    if (length != NULL && length < body) {
        const size_t n = strtoul(length + 16, NULL, 10);
        return strlen(body) >= n ? (size_t)(body - text) + n : 0;
    }
    const char *end = strstr(body, "\r\n0\r\n\r\n");
    return end != NULL ? (size_t)(end - text) + 7 : strstr(text, "204 No") != NULL ? (size_t)(body - text) : 0;
}

/* Options of a server whose prompts take long enough for others to come meanwhile: with sanitizers any does. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define G4_SLOWLY "-t", "1"
#else
#define G4_SLOWLY "--isa", "scalar", "-t", "1"
#endif

/* The next answer of the connection into text; its status, 0: none. */
static inline int g4_read_answer(int fd, char *text, double seconds)
{
    size_t len = 0, n = 0;
    text[0] = '\0';
    const double until = g4_now() + seconds;
    while ((n = g4_whole(text)) == 0 && g4_now() < until) {
        if (g4_receive(fd, text, &len, until - g4_now()) <= 0) break;
    }
    return n > 0 ? atoi(text + 9) : 0;
}

/* One request on a connection of its own; its status, 0: no answer. */
static inline int g4_ask_as(const g4_server *s, const char *method, const char *path, const char *fields,
                            const char *body, char *answer)
{
    char *text = g4_request_text(method, path, fields, body);
    const int fd = g4_connect(s);
    g4_send(fd, text, strlen(text));
    const int status = g4_read_answer(fd, answer, 60);
    close(fd);
    free(text);
    return status;
}

static inline int g4_ask(const g4_server *s, const char *path, const char *body, char *answer)
{
    return g4_ask_as(s, "POST", path, "", body, answer);
}

/* The value of a metric. */
static inline long g4_metric(const g4_server *s, const char *name)
{
    char *text = malloc(TEXT), key[64];
    long value = -1;
    snprintf(key, sizeof key, "\ngemma4_%s ", name);
    if (g4_ask_as(s, "GET", "/metrics", "", "", text) == 200) {
        const char *at = strstr(text, key);
        if (at != NULL) value = atol(at + strlen(key));
    }
    free(text);
    return value;
}

/* Seconds until a metric has a value, at most so many. */
static inline double g4_until(const g4_server *s, const char *name, long value, double seconds)
{
    const double began = g4_now();
    while (g4_metric(s, name) != value && g4_now() - began < seconds) g4_nap(0.01);
    return g4_now() - began;
}

/* The part of an answer that does not depend on when and where it was given: from choices to usage, in place. */
static inline char *g4_choices(char *answer)
{
    char *from = strstr(answer, "\"choices\":"), *to = from != NULL ? strstr(from, ",\"usage\":") : NULL;
    if (to == NULL) return answer;
    *to = '\0';
    return from;
}

#define CHAT "/v1/chat/completions"
/* An answer without an end: whatever comes, at random, and never the same twice in a row. */
#define LONG_ANSWER                                                                                                    \
    "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"temperature\":4,\"top_k\":0,\"top_p\":1,\"max_tokens\":"  \
    "3900,"                                                                                                            \
    "\"logit_bias\":{\"1\":-1000,\"16\":-1000,\"106\":-1000},\"presence_penalty\":1"

/* Ask, and wait until that many are answered or wait. */
static inline int g4_begin(const g4_server *s, const char *body, const char *metric, long n)
{
    char *text = g4_request_text("POST", CHAT, "", body);
    const int fd = g4_connect(s);
    g4_send(fd, text, strlen(text));
    free(text);
    g4_until(s, metric, n, 5);
    return fd;
}

#endif
