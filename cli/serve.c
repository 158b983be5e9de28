/* serve.c - gemma4 serve: the server that clients of OpenAI's format speak to. How it begins, whom it lets in, and how
 * it ends: asked once it answers what it has begun, asked twice it stops. */
#include "serve.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { USUAL_PARALLEL = 4, USUAL_QUEUE = 32, USUAL_PORT = 8080, USUAL_TIMEOUT = 600, MORE_CONNECTIONS = 64 };

/* ---- Signals ----------------------------------------------------------------------------------------------------- */

/* Those that are waited for, by one thread and no other. */
static sigset_t served_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    return set;
}

static void *signals_main(void *arg)
{
    server *s = arg;
    const sigset_t set = served_signals();
    for (int number, is_asked = 0;;) {
        if (sigwait(&set, &number) != 0) continue;
        if (number == SIGHUP) {
            trace_open(s);
            continue;
        }
        if (is_asked || !atomic_load(&s->is_open)) _exit(128 + number); /* asked twice, or nothing has begun yet */
        is_asked = 1;
        atomic_store(&s->drains, 1);
        close(s->stop_pipe[1]);
    }
}

/* ---- Connections ------------------------------------------------------------------------------------------------- */

/* No thread is left for this one. */
static void turn_away(int fd)
{
    static const char body[] = "{\"error\":{\"message\":\"too many connections: try again\",\"type\":\"server_error\","
                               "\"param\":null,\"code\":\"too_many_connections\"}}\n";
    buffer b = { 0 };
    http_head(&b, 503, "application/json", (int64_t)strlen(body), "Retry-After: 1\r\n", 0);
    buffer_str(&b, body);
    if (!b.failed) (void)!send(fd, b.data, b.len, MSG_NOSIGNAL | MSG_DONTWAIT);
    buffer_free(&b);
}

static void take_connection(server *s, int listener)
{
    const int fd = accept(listener, NULL, NULL);
    if (fd < 0) { /* out of descriptors, perhaps: those that are open must end first */
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) poll(NULL, 0, 50);
        return;
    }
    pthread_mutex_lock(&s->lock);
    const int has_room = s->n_connections < s->max_connections;
    pthread_mutex_unlock(&s->lock);
    if (has_room && connection_start(s, fd)) return;
    turn_away(fd);
    close(fd);
}

/* Until the server is asked to stop; then until all that it has begun is answered. */
static void serve_connections(server *s)
{
    struct pollfd ready[MAX_LISTENERS + 1];
    const int n = s->listeners.n;
    for (int i = 0; i < n; i++) ready[i] = (struct pollfd) { .fd = s->listeners.fds[i], .events = POLLIN };
    ready[n] = (struct pollfd) { .fd = s->stop_pipe[0], .events = POLLIN };
    while (!atomic_load(&s->drains)) {
        if (poll(ready, (nfds_t)n + 1, -1) <= 0) continue;
        for (int i = 0; i < n && !atomic_load(&s->drains); i++) {
            if (ready[i].revents != 0) take_connection(s, ready[i].fd);
        }
    }
    listeners_close(&s->listeners);
    pthread_mutex_lock(&s->lock);
    while (s->n_connections > 0) pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

/* ---- The command ------------------------------------------------------------------------------------------------- */

static void take_defaults(arguments *a)
{
    if (a->host == NULL) a->host = "127.0.0.1";
    if (is_given(a, FIELD(port)) == NULL) a->port = USUAL_PORT;
    if (a->parallel == 0) a->parallel = USUAL_PARALLEL;
    if (is_given(a, FIELD(max_queue)) == NULL) a->max_queue = USUAL_QUEUE;
    if (a->timeout == 0) a->timeout = USUAL_TIMEOUT;
    if (a->max_body == 0) a->max_body = 64 << 20;
    if (a->ffmpeg == NULL) a->ffmpeg = ""; /* no program is started for a stranger, unless that is wanted */
}

static int check_outside(const server *s)
{
    if (!s->listeners.is_outside || s->n_keys > 0 || s->args->insecure) return DONE;
    return say(USAGE, "--host %s can be reached from other machines: give --api-key-file FILE, or --insecure",
               s->args->host);
}

static int check_cors(const char *origin)
{
    if (origin == NULL || cors_is_origin(origin)) return DONE;
    return say(USAGE, "--cors needs an origin as browsers send it, https://page.example or *, not \"%s\"", origin);
}

/* As many at a time as fit, where nobody has said how many. */
static int plan_memory(server *s)
{
    arguments *a = s->args;
    const double gb = 1e-9;
    const int is_mapped = !a->huge_pages && !a->no_mmap, is_wanted = is_given(a, FIELD(parallel)) != NULL;
    g4_memory_plan plan;
    g4_session_plan(s->shop.engine, &s->shop.session, &plan);
    const uint64_t fixed = (is_mapped ? plan.weights : 0) + plan.shared, each = plan.kv + plan.work;
    int n = a->parallel;
    while (n > 1 && plan.available > 0 && fixed + (uint64_t)n * each > plan.available) n--;
    if (plan.available == 0 || fixed + (uint64_t)n * each <= plan.available) {
        if (n < a->parallel && is_wanted)
            return say(FAILED, "--parallel %d needs %.1f GB and %.1f GB are free: %d would fit, or a shorter context",
                       a->parallel, gb * (double)(fixed + (uint64_t)a->parallel * each), gb * (double)plan.available,
                       n);
        if (n < a->parallel && !a->quiet) say(DONE, "%d at a time: more do not fit in memory", n);
    } else if (!a->quiet) {
        say(DONE, "the model and a context of %d need %.1f GB, and %.1f GB are free: it will be slow",
            context_size(a, &s->shop.info), gb * (double)(fixed + each), gb * (double)plan.available);
    }
    a->parallel = n;
    return DONE;
}

static void tell_addresses(const server *s)
{
    const char *line = buffer_text(&s->listeners.urls), *first = line;
    const int n_first = (int)strcspn(first, "\n");
    for (; *line != '\0'; line += strcspn(line, "\n") + 1)
        say(DONE, "listening on %.*s", (int)strcspn(line, "\n"), line);
    if (s->args->quiet) return;
    say(DONE,
        "try: curl %.*s/v1/chat/completions%s -H 'Content-Type: application/json' -d '{\"messages\":[{\"role\":"
        "\"user\",\"content\":\"Hello\"}]}'",
        n_first, first, s->n_keys > 0 ? " -H 'Authorization: Bearer KEY'" : "");
    say(DONE, "page: %.*s/", n_first, first);
}

static int open_server(server *s, arguments *a)
{
    progress_line unused;
    int status = request_shop_open(&s->shop, a);
    if (status != DONE) return status;
    s->shop.session = session_options(a, &unused);
    s->shop.session.progress = NULL;
    s->shop.session.limits = (g4_limits) { .cancel = NULL };
    status = plan_memory(s);
    if (status == DONE && a->api_key_file != NULL) status = keys_read_file(s, a->api_key_file);
    if (status == DONE) status = trace_open(s);
    if (status == DONE) status = watcher_start(&s->watcher);
    if (status == DONE) status = scheduler_start(&s->scheduler, &s->shop, a->parallel, a->max_queue);
    if (status == DONE && pipe(s->stop_pipe) != 0) status = say(FAILED, "cannot make a pipe: %s", strerror(errno));
    if (status == DONE) status = listeners_open(&s->listeners, a->host, a->port);
    return status == DONE ? check_outside(s) : status;
}

static void close_server(server *s)
{
    scheduler_end(&s->scheduler);
    watcher_end(&s->watcher);
    listeners_close(&s->listeners);
    request_shop_close(&s->shop);
    for (int i = 0; i < s->n_keys; i++) free(s->keys[i]);
    free(s->keys);
    if (s->trace != NULL) fclose(s->trace);
    if (s->stop_pipe[0] > 0) close(s->stop_pipe[0]);
}

int run_serve(arguments *a)
{
    const sigset_t set = served_signals();
    model_loader loader = { 0 };
    pthread_t signals;
    server *s = calloc(1, sizeof *s);
    if (s == NULL) return say(FAILED, "no memory for a server");
    take_defaults(a);
    if (check_cors(a->cors) != DONE) {
        free(s);
        return USAGE;
    }
    s->args = a;
    s->wants_body = route_head;
    s->answer = route_request;
    s->began = seconds_now();
    s->created = (int64_t)time(NULL);
    s->max_connections = a->parallel + a->max_queue + MORE_CONNECTIONS;
    atomic_init(&s->next_id, (uint64_t)s->created << 24 ^ (uint64_t)getpid() << 8);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->alone, NULL);
    pthread_cond_init(&s->changed, NULL);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* before there are other threads, which have it so too */
    if (pthread_create(&signals, NULL, signals_main, s) != 0) return say(FAILED, "cannot start a thread");
    const int status = open_server(s, a);
    atomic_store(&s->is_open, status == DONE);
    if (status == DONE) {
        loader_start(&loader, s->shop.engine, 0);
        tell_addresses(s);
        serve_connections(s);
        loader_end(&loader);
    }
    pthread_cancel(signals);
    pthread_join(signals, NULL);
    close_server(s);
    free(s);
    return status;
}
