/* serve.h - what the files of the server share; cli.h lists them.
 *
 * Threads: main accepts connections; each connection has a thread of its own, which reads a request, makes it ready
 * (media, prompt, grammars) and writes the answer; the scheduler alone uses the batch and the sessions; a watcher sees
 * clients go; one waits for signals. Whoever computes never waits for a client: what is said to one lies in its job
 * until its own thread has sent it. */
#ifndef SERVE_H
#define SERVE_H

#include "cli.h"

/* ---- HTTP (http.c) -------------------------------------------------------------------------------- */

enum {
    HTTP_MAX_HEAD = 16 << 10,
    HTTP_MAX_FIELDS = 100,
    HTTP_MAX_LINE = 256,      /* of a chunk's size */
    HTTP_KEPT_BODY = 64 << 10 /* bytes of room that a connection keeps between requests */
};
typedef enum {
    HTTP_HEAD,
    HTTP_BODY, /* of a known length */
    HTTP_CHUNK_SIZE,
    HTTP_CHUNK,
    HTTP_CHUNK_END,
    HTTP_TRAILER,
    HTTP_COMPLETE,
    HTTP_REFUSED
} http_state;
typedef struct {
    const char *name, *value; /* in lower case; without blanks around it */
} http_field;
typedef struct { /* a request as it comes; zeroed but for max_body it is at its start. Texts point into the head */
    uint64_t max_body;
    http_state state;
    buffer head, body;
    const char *method, *path, *query; /* once has_head is set */
    int minor;                         /* of the version 1.x */
    http_field fields[HTTP_MAX_FIELDS];
    int n_fields;
    int has_head, has_body, keeps_alive, expects_continue;
    int status; /* HTTP_REFUSED: why; whoever refuses does not read on */
    const char *why;
    uint64_t left; /* bytes of the body, or of a chunk */
    int n_line, n_digits, n_trailer, was_return, had_blank_line;
} http_request;
/* Take bytes of it. Returns how many: less than n when it is complete or refused, and at the end of the head, so that
 * the caller can answer before the body comes. The rest belongs to what follows. */
size_t http_push(http_request *r, const char *data, size_t n);
void http_next(http_request *r); /* the next request of the connection begins */
void http_free(http_request *r);
const char *http_get(const http_request *r, const char *name); /* of a field, in lower case; NULL: there is none */
int http_same(const char *a, const char *b);                   /* whatever the case of their letters */
const char *http_reason(int status);
enum { HTTP_CHUNKED = -1, HTTP_UNTIL_CLOSED = -2 };
/* The head of an answer of so many bytes. fields: further lines, or NULL. */
void http_head(buffer *out, int status, const char *type, int64_t length, const char *fields, int keeps_alive);
void http_chunk(buffer *out, const char *data, size_t n);

/* ---- Forms (multipart.c) --------------------------------------------------------------------------- */

enum { MULTIPART_BOUNDARY = 70 };
typedef struct { /* the parts of a body in memory */
    const char *data;
    size_t len, at;
    char delimiter[MULTIPART_BOUNDARY + 5];
    int begun, ended;
} multipart;
typedef struct {
    char name[64], file[256];
    const char *data; /* in the body */
    size_t len;
} multipart_part;
/* 0: the type of the content is no multipart/form-data with a boundary. */
int multipart_open(multipart *m, const char *content_type, const char *data, size_t len);
int multipart_next(multipart *m, multipart_part *out); /* 1: a part; 0: there are no more; -1: it is malformed */

/* ---- Sockets (socket.c) ---------------------------------------------------------------------------- */

enum { MAX_LISTENERS = 8 };
typedef struct {
    int fds[MAX_LISTENERS], n;
    buffer urls;       /* "http://127.0.0.1:8080", one a line */
    int is_outside;    /* one of them is no loopback address */
    int is_everywhere; /* one of them is every address of the machine */
} listeners;
int listeners_open(listeners *l, const char *host, int port);
void listeners_close(listeners *l);

/* Clients that somebody works for, and what to set when they go. */
typedef struct watched {
    int fd;
    g4_cancel *gone;
    atomic_int *has_gone;
    struct watched *next;
} watched;
typedef struct {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    watched *list;
    int started, ends;
} watcher;
int watcher_start(watcher *w);
void watcher_end(watcher *w);
void watcher_add(watcher *w, watched *one, int fd, g4_cancel *gone, atomic_int *has_gone);
void watcher_remove(watcher *w, watched *one);

int socket_prepare(int fd); /* it waits for nobody, and sends small pieces at once */
/* Add what has come to `in`, waiting until `until` at most. Returns the bytes; 0: the client has closed it; -1: an
 * error, or it is late; -2: stop_fd (not -1) can be read. */
ptrdiff_t socket_read(int fd, buffer *in, double until, int stop_fd);
/* All of it; 0: the client takes nothing for SEND_PATIENCE seconds, or less than SEND_RATE bytes in each. */
enum { SEND_PATIENCE = 5, SEND_RATE = 4096 };
int socket_send(int fd, const char *data, size_t n);

/* ---- Jobs of the scheduler (scheduler.c) ------------------------------------------------------------ */

/* What the waits of jobs go by; where a condition has no clock to choose, the time of day. */
#ifdef __APPLE__
#define WAIT_CLOCK CLOCK_REALTIME
#else
#define WAIT_CLOCK CLOCK_MONOTONIC
#endif

typedef enum { JOB_WAITS, JOB_RUNS, JOB_OVER } job_state;
typedef struct served_job {
    request_work work;
    g4_cancel gone;          /* ends all that is done for it */
    atomic_int has_gone;     /* its client, who will read nothing */
    atomic_int is_cancelled; /* the scheduler was told so */
    int streams;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    job_state state;                                     /* under the lock */
    buffer out;                                          /* likewise: events that nobody has sent yet ... */
    int is_full;                                         /* ... and there were too many of them */
    int (*tell)(void *user, const char *data, size_t n); /* sends an event at once; NULL: it goes to `out` */
    void *told;
    int choice, has_more; /* of a stream of several answers: which it is, and whether another one follows */
    int prompt_before, cached_before, answer_before; /* tokens of those before it */
    g4_stream *stream;
    g4_guide *guide; /* of raw text */
    g4_batch_respond_request request;
    g4_respond_options respond;
    double added, begun; /* when it came into the queue, into the batch */
    int n_common;        /* tokens that the session had in common ... */
    int n_held;          /* ... of so many */
    const char *placed;  /* "continued", "forked", "new" */
    struct scheduler *scheduler;
    struct kept_session *session;
    struct served_job *next;
} served_job;

typedef struct kept_session { /* a conversation that can go on */
    g4_session *session;      /* NULL: none */
    served_job *job;          /* that uses it now */
    uint64_t used, bytes;
} kept_session;

enum { MAX_KEPT = 2 * MAX_PARALLEL };
typedef struct scheduler {
    request_shop *shop;
    g4_batch *batch;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    served_job *first, *last; /* that wait, under the lock */
    int n_waiting, max_waiting, n_parallel, ends, started;
    atomic_int n_running;
    served_job *awaiting[MAX_PARALLEL]; /* (n_awaiting) run, but what they begin with another one is reading */
    int n_awaiting;
    g4_cancel hurry;       /* ends the step that is being computed: nobody wants it any more */
    uint64_t session_work; /* bytes of buffers of a session */
    kept_session kept[MAX_KEPT];
    uint64_t clock;
    atomic_ullong kept_bytes, n_kept;
} scheduler;
int scheduler_start(scheduler *s, request_shop *shop, int n_parallel, int max_waiting);
void scheduler_end(scheduler *s);
int scheduler_add(scheduler *s, served_job *j); /* 0: too many wait */
void scheduler_cancel(scheduler *s, served_job *j);
void scheduler_counts(scheduler *s, int *n_waiting, int *n_running);
int job_init(served_job *j, request_shop *shop); /* 0: no memory */
void job_free(served_job *j);
int job_open_stream(served_job *j); /* 0: it could not be; else events lie in `out` from now on */

/* ---- The server (serve.c), its connections (connection.c), what it answers (routes.c, answers.c) ------- */

typedef struct {
    atomic_ullong requests, refused, failed, gone, prompt_tokens, cached_tokens, answer_tokens;
} server_counts;

typedef struct connection connection;

typedef struct {
    arguments *args;
    int (*wants_body)(connection *c); /* once the head is there; else it is answered */
    void (*answer)(connection *c);    /* the request that is complete */
    request_shop shop;
    listeners listeners;
    scheduler scheduler;
    watcher watcher;
    char **keys; /* (n_keys); none: everybody may ask */
    int n_keys;
    pthread_mutex_t lock; /* of the trace and of n_connections */
    pthread_cond_t changed;
    FILE *trace;
    int trace_failed; /* the last line could not be written */
    int n_connections, max_connections;
    atomic_int is_open, drains; /* it listens; it answers what it has begun, and no more */
    int stop_pipe[2];           /* its reading end can be read once the server drains */
    double began;
    int64_t created;
    atomic_ullong next_id;
    pthread_mutex_t alone; /* of what needs a session outside the batch */
    server_counts counts;
} server;

struct connection {
    server *s;
    int fd;
    http_request request;
    buffer in; /* what has come and is not read yet, from in_at on */
    size_t in_at;
    double began;        /* when the request was complete: from then on --timeout counts, for all its answers */
    g4_dialect dialect;  /* of the route that is asked */
    const char *allowed; /* methods of it; NULL: it is none */
    int closes;          /* behind this answer */
    int has_head;        /* its head has been sent, and events follow */
    int is_lost;         /* it takes no more */
    const char *origin;  /* of a page of --cors, which may read the answer; NULL: none */
};

/* connection.c */
int connection_start(server *s, int fd); /* its thread, which owns fd; 0: there is none */
/* Send an answer whole. type NULL: JSON. fields: further lines of the head, or NULL. */
void connection_answer(connection *c, int status, const char *type, const buffer *body, const char *fields);
/* An error in the dialect of the connection. param: the member or field that is meant, or NULL. */
void connection_error(connection *c, int status, const char *param, const char *format, ...) PRINTF_LIKE(4, 5);
void connection_refuse(connection *c, const g4_refusal *why);
void connection_stream(const connection *c, buffer *head); /* add the head of an answer of events */
void connection_send(connection *c, const buffer *b);      /* as it is */

/* access.c */
int keys_read_file(server *s, const char *path);
int cors_is_origin(const char *text); /* of --cors */
/* May the request come at all, by its Host, Origin and key? Else it is answered. */
int access_allowed(connection *c, int needs_key);

/* trace.c */
int trace_open(server *s); /* or open it again */
void trace_add(server *s, const served_job *j, const char *route, const char *outcome);

/* answers.c: the routes that generate, or read what would be */
/* Use a job that the client's going ends, and free it. */
void job_serve(connection *c, void (*use)(connection *c, served_job *j, void *user), void *user);
g4_status job_make_ready(served_job *j, const buffer *body);
/* A prompt that fills the context is wrong: `field` has it. */
g4_status job_check_length(request_work *w, const char *field);
void job_answer_ready(connection *c, served_job *j); /* or refuse it, as its status says */
int job_wait(connection *c, served_job *j);          /* until it is answered; 0: too many wait, and the client knows */
/* One of several answers in one stream, given by the batch or by `alone` on this thread. */
void job_answer_choice(connection *c, served_job *j, void (*alone)(connection *c, served_job *j));
void job_forgive_lateness(request_work *w);    /* an answer that ran out of time is one that was cut off */
void job_refuse(connection *c, served_job *j); /* say what is wrong with it, unless the client has gone */
void answer_chat(connection *c);
void answer_tokens(connection *c);
void answer_text(connection *c);
void answer_template(connection *c);
void answer_count(connection *c);

void answer_completion(connection *c);    /* completions.c */
void answer_transcription(connection *c); /* transcribe.c */

/* routes.c: `wants_body` and `answer` of the server */
int route_head(connection *c);
void route_request(connection *c);

#endif /* SERVE_H */
