/* socket.c - sockets of the server: where it listens, reading and sending that wait so long and no longer, and the
 * watcher, who sees that a client has gone while his thread is busy. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* POLLRDHUP, where there is one */
#endif
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef POLLRDHUP
#define POLLRDHUP 0 /* then only a connection that is closed both ways is seen */
#endif

/* ---- Listening ------------------------------------------------------------------------------------------------ */

static struct in_addr address4(const struct sockaddr_storage *a)
{
    struct sockaddr_in in;
    memcpy(&in, a, sizeof in);
    return in.sin_addr;
}

static in_port_t port_of(const struct sockaddr_storage *a)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    memcpy(&in, a, sizeof in);
    memcpy(&in6, a, sizeof in6);
    return a->ss_family == AF_INET ? in.sin_port : in6.sin6_port;
}

static int is_same6(const struct sockaddr_storage *a, const struct in6_addr *other)
{
    struct sockaddr_in6 in;
    memcpy(&in, a, sizeof in);
    return memcmp(&in.sin6_addr, other, sizeof *other) == 0;
}

static int is_loopback(const struct sockaddr_storage *a)
{
    return a->ss_family == AF_INET ? ntohl(address4(a).s_addr) >> 24 == 127 : is_same6(a, &in6addr_loopback);
}

static int is_any(const struct sockaddr_storage *a)
{
    return a->ss_family == AF_INET ? address4(a).s_addr == htonl(INADDR_ANY) : is_same6(a, &in6addr_any);
}

/* Listen there; -1: not. */
static int listen_at(const struct addrinfo *at)
{
    const int yes = 1, fd = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
    if (fd < 0) return -1;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (at->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0 && socket_prepare(fd)) return fd;
    const int reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

/* The address and port that it has now. */
static void tell_address(listeners *l, int fd)
{
    struct sockaddr_storage a = { 0 };
    socklen_t len = sizeof a;
    char host[64], port[16];
    if (getsockname(fd, (struct sockaddr *)&a, &len) != 0) return;
    l->is_outside |= !is_loopback(&a);
    l->is_everywhere |= is_any(&a);
    if (getnameinfo((struct sockaddr *)&a, len, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV))
        return;
    buffer_fmt(&l->urls, strchr(host, ':') != NULL ? "http://[%s]:%s\n" : "http://%s:%s\n", host, port);
}

/* One port for all addresses of a name: that of the first, when the system may choose it. */
static void take_port(const listeners *l, struct addrinfo *at)
{
    struct sockaddr_storage a = { 0 };
    socklen_t len = sizeof a;
    if (l->n == 0 || getsockname(l->fds[0], (struct sockaddr *)&a, &len) != 0) return;
    const in_port_t port = port_of(&a);
    if (at->ai_family == AF_INET)
        ((struct sockaddr_in *)(void *)at->ai_addr)->sin_port = port;
    else
        ((struct sockaddr_in6 *)(void *)at->ai_addr)->sin6_port = port;
}

int listeners_open(listeners *l, const char *host, int port)
{
    const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
    struct addrinfo *list;
    char service[16];
    int reason = 0;
    snprintf(service, sizeof service, "%d", port);
    const int wrong = getaddrinfo(host, service, &hints, &list);
    if (wrong != 0) return say(FAILED, "--host %s: %s", host, gai_strerror(wrong));
    for (struct addrinfo *at = list; at != NULL && l->n < MAX_LISTENERS; at = at->ai_next) {
        if (at->ai_family != AF_INET && at->ai_family != AF_INET6) continue;
        take_port(l, at);
        const int fd = listen_at(at);
        if (fd < 0) {
            reason = errno;
            continue;
        }
        l->fds[l->n++] = fd;
        tell_address(l, fd);
    }
    freeaddrinfo(list);
    if (l->n > 0) return DONE;
    return say(FAILED, "cannot listen on %s port %d: %s", host, port, strerror(reason));
}

void listeners_close(listeners *l)
{
    for (int i = 0; i < l->n; i++) close(l->fds[i]);
    l->n = 0;
    buffer_free(&l->urls);
}

/* ---- Reading and sending ---------------------------------------------------------------------------------------- */

enum { UNSENT = 256 << 10 }; /* bytes that the system holds for a client, whether it reads or not */

int socket_prepare(int fd)
{
    const int yes = 1, unsent = UNSENT / 2; /* the system doubles it */
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &unsent, sizeof unsent);
    return fcntl(fd, F_SETFL, O_NONBLOCK) == 0;
}

/* Milliseconds until then. */
static int left_until(double until)
{
    const double left = 1000 * (until - seconds_now());
    return left <= 0 ? 0 : left > 60000 ? 60000 : (int)left + 1;
}

ptrdiff_t socket_read(int fd, buffer *in, double until, int stop_fd)
{
    char block[65536];
    for (;;) {
        struct pollfd ready[] = { { .fd = fd, .events = POLLIN }, { .fd = stop_fd, .events = POLLIN } };
        const ssize_t n = recv(fd, block, sizeof block, 0);
        if (n >= 0) {
            buffer_add(in, block, (size_t)n);
            return in->failed ? -1 : n;
        }
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return -1;
        const int left = left_until(until);
        if (left == 0) return -1;
        poll(ready, 2, left);
        if (stop_fd >= 0 && ready[1].revents != 0 && ready[0].revents == 0) return -2;
    }
}

int socket_send(int fd, const char *data, size_t n)
{
    const double began = seconds_now();
    size_t done = 0;
    while (done < n) {
        struct pollfd ready = { .fd = fd, .events = POLLOUT };
        const ssize_t sent = send(fd, data + done, n - done, MSG_NOSIGNAL);
        if (sent > 0) {
            done += (size_t)sent;
            continue;
        }
        if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return 0;
        const double read = done > UNSENT ? (double)(done - UNSENT) : 0; /* the system may hold the rest */
        const int left = left_until(began + SEND_PATIENCE + read / SEND_RATE);
        if (left == 0) return 0;
        poll(&ready, 1, left);
    }
    return 1;
}

/* ---- Who has gone ------------------------------------------------------------------------------------------------ */

enum { MAX_WATCHED = 1024, WATCH_MS = 50 };

/* Those that are still there, to be asked. */
static nfds_t list_watched(const watcher *w, struct pollfd *asked, watched **who)
{
    nfds_t n = 0;
    for (watched *one = w->list; one != NULL && n < MAX_WATCHED; one = one->next) {
        if (one->fd < 0) continue; /* it is known */
        who[n] = one;
        asked[n++] = (struct pollfd) { .fd = one->fd, .events = POLLRDHUP };
    }
    return n;
}

static void *watcher_main(void *arg)
{
    watcher *w = arg;
    struct pollfd asked[MAX_WATCHED];
    watched *who[MAX_WATCHED];
    pthread_mutex_lock(&w->lock);
    while (!w->ends) {
        const nfds_t n = list_watched(w, asked, who);
        if (n == 0) {
            pthread_cond_wait(&w->changed, &w->lock);
            continue;
        }
        if (poll(asked, n, 0) > 0) { /* under the lock: who is asked does not go away meanwhile */
            for (nfds_t i = 0; i < n; i++) {
                if (asked[i].revents == 0) continue;
                atomic_store(who[i]->has_gone, 1);
                g4_cancel_set(who[i]->gone);
                who[i]->fd = -1;
            }
        }
        pthread_mutex_unlock(&w->lock);
        poll(NULL, 0, WATCH_MS);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int watcher_start(watcher *w)
{
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    w->started = pthread_create(&w->thread, NULL, watcher_main, w) == 0;
    return w->started ? DONE : say(FAILED, "cannot start a thread");
}

void watcher_end(watcher *w)
{
    if (!w->started) return;
    pthread_mutex_lock(&w->lock);
    w->ends = 1;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
}

void watcher_add(watcher *w, watched *one, int fd, g4_cancel *gone, atomic_int *has_gone)
{
    pthread_mutex_lock(&w->lock);
    *one = (watched) { fd, gone, has_gone, w->list };
    w->list = one;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

void watcher_remove(watcher *w, watched *one)
{
    pthread_mutex_lock(&w->lock);
    watched **at = &w->list;
    while (*at != one) at = &(*at)->next;
    *at = one->next;
    pthread_mutex_unlock(&w->lock);
}
