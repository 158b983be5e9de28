/* session.h - the floor of the objects that users hold: engines and sessions (engine.c, residency.c, encode.c,
 * session.c, state.c). */
#ifndef GEMMA4_SESSION_H
#define GEMMA4_SESSION_H

#include "towers.h"

#include <pthread.h>

/* ---- Engine (engine.c) --------------------------------------------------------------------------------- */

typedef struct { /* a lock whose waiters can be halted */
    pthread_mutex_t guard;
    pthread_cond_t freed;
    int taken;
    pthread_t owner; /* while it is taken */
} g4_lock;

struct g4_engine {
    g4_allocator allocator;
    const g4_allocator *a; /* &allocator, or NULL for malloc */
    g4_log_fn log;
    void *log_user;
    g4_file file;
    g4_tokenizer tokenizer;
    g4_vocabulary_home vocabulary; /* of its grammars */
    g4_compute compute;
    g4_model model;
    g4_vision *vision; /* NULL: the file has none */
    g4_hearing *hearing;
    g4_soft_cache softs;
    g4_blocks blocks; /* `rows` and what `compute` gives its threads */
    g4_row *rows;     /* (rows of a pass): what goes through the model next */
    g4_limits limits; /* of each call that has no session and no options of its own */
    g4_taps taps;     /* of the towers */
    g4_lock *lock;    /* own_lock: of what one forward pass at a time uses, also through a const engine */
    g4_lock own_lock;
    int lock_ready;
    int is_f32;            /* all weights are float32 */
    atomic_int n_sessions; /* open now */
    uint64_t work_bytes;   /* of buffers */
    uint64_t fingerprint;  /* of configuration and weights, for saved states; computed at the first save or load */
};

/* The lock guards threads, buffers and remembered soft tokens; it is held for the length of a forward pass. The call
 * may be halted while it waits, and while the threads work for it. There is no lock after a failure, one of which is a
 * call from a tap, inside a pass of this engine and thread. */
g4_status g4_engine_enter(const g4_engine *e, g4_halt *halt, g4_error *err);
void g4_engine_unlock(const g4_engine *e);
/* The same, and G4_ERR_CANCELED when what the threads did was cut short. */
g4_status g4_engine_leave(const g4_engine *e, g4_halt *halt, g4_error *err);
/* Is this an engine whose threads are here? Not a NULL, and not one that was open before this process was forked. */
g4_status g4_engine_check(const g4_engine *e, g4_error *err);
/* Begins the halt of a call without a session or options, and returns it; NULL for no engine. */
g4_halt *g4_engine_halt(const g4_engine *e, g4_halt *halt);
const g4_allocator *g4_engine_allocator(const g4_engine *e);
const g4_tokenizer *g4_engine_tokenizer(const g4_engine *e);
const g4_config *g4_engine_config(const g4_engine *e);
void g4_engine_log(const g4_engine *e, g4_log_level level, const char *fmt, ...) G4_PRINTF(3, 4);

/* ---- Memory (residency.c) --------------------------------------------------------------------------------- */

/* Tell the system how the file is read; advice, so it cannot fail. */
void g4_file_advise(const g4_file *f);
g4_status g4_file_lock(g4_file *f, g4_halt *halt, g4_error *err); /* mlock what every token reads */
void g4_file_unlock(const g4_file *f); /* what g4_file_lock locked, where unmapping does not do so */
/* Read the weights of a file that is not mapped; copy what every token reads into huge pages. From the file that is
 * open, wherever its name leads by now. */
g4_status g4_file_read_weights(const g4_file *f, int huge_pages, g4_halt *halt, g4_error *err);
g4_status g4_file_use_huge_pages(const g4_file *f, g4_halt *halt, g4_error *err);
/* Is this a tensor of the text decoder that is multiplied? (Every token reads it, or with experts may.) */
int g4_is_decoder_weight(const g4_tensor_entry *t);
/* How many bytes of a tensor are in memory, by a look at one page of each 2 MB. */
uint64_t g4_resident_bytes(const g4_file *f, const g4_tensor_entry *t);
/* Bytes available without swapping, by the system's own estimate and what the limits of its control groups leave; 0 if
 * unknown. */
uint64_t g4_available_memory(void);
/* What of `available` the limits of a control group and of those around it leave. root: where groups of that version
 * (1 or 2) are mounted; group: its path there. */
uint64_t g4_group_memory(const char *root, const char *group, int version, uint64_t available);

/* ---- Session (session.c) ----------------------------------------------------------------------------------- */

typedef struct { /* a position that can be returned to */
    int refs;    /* the session, and a call in progress that keeps what the session was */
    int pos;
    g4_kv_snapshot kv;
} g4_snapshot;

typedef struct { /* lets one call at a time into a session, also through a const one */
    atomic_int busy;
    g4_cancel canceled; /* g4_session_cancel */
    g4_halt *halt;      /* of the call that is in */
} g4_gate;

typedef enum { /* what is known behind the last position */
               G4_READY_NOTHING,
               G4_READY_STATE, /* its final state */
               G4_READY_RAW,   /* logits before their softcap, and the largest of each group */
               G4_READY_LOGITS /* softcapped logits */
} g4_readiness;

struct g4_session { /* a timeline: tokens, the media among them, keys and values */
    g4_engine *e;
    int n_ctx, chunk;
    uint64_t snapshot_budget;
    g4_progress_fn progress;
    void *user;
    g4_limits limits; /* of each call */
    g4_taps taps;     /* of the decoder */
    g4_gate *gate;    /* own_gate */
    g4_gate own_gate;
    int n;            /* positions evaluated */
    g4_token *tokens; /* (n_ctx) */
    g4_medium *media; /* by position */
    int n_media, cap_media;
    g4_kv kv;
    g4_snapshot **snapshots; /* by position */
    int n_snapshots, cap_snapshots;
    g4_blocks blocks; /* of fixed size: tokens, and all below */
    g4_readiness ready;
    float *state;             /* (hidden): of the last position, before its norm */
    float *logits;            /* (vocab): of the last position */
    float *group_max;         /* (vocab / 16) */
    float *work;              /* (vocab): logits after penalties */
    g4_candidate *candidates; /* (vocab) */
    uint32_t *mask, *seen;    /* (vocab / 32 + 1): what the constraint allows; what the timeline holds */
    float *guessed_states; /* (G4_HEAD_ROWS, hidden): final states behind a chosen token and guesses at what follows */
    float *guessed_logits; /* (G4_HEAD_ROWS, pad16(vocab)) */
    uint64_t n_evaluated;  /* positions run through the model */
    uint64_t n_head_rows;  /* rows of the vocabulary head computed ... */
    uint64_t n_guessed, n_held; /* ... guesses evaluated, and those that were right: for tests and benches */
};

static inline const g4_taps *g4_taps_given(const g4_taps *taps) /* NULL: none */
{
    return taps->fn || taps->inputs ? taps : NULL;
}

/* ---- Soft tokens (encode.c) --------------------------------------------------------------------------------- */

/* g4_image_encode or g4_frame_encode, and g4_audio_encode, within a call that has begun. */
g4_status g4_encode_picture(g4_soft **out, g4_engine *e, const g4_image *image, int is_frame, g4_halt *halt,
                            g4_error *err);
g4_status g4_encode_sound(g4_soft **out, g4_engine *e, const g4_audio *block, g4_halt *halt, g4_error *err);

/* ---- Calls on a session (session.c) --------------------------------------------------------------------------- */

/* A public call on a session begins and ends so; what it calls in between are the functions of timelines below. */
typedef struct {
    g4_gate *gate; /* NULL: it was not let in */
    g4_halt halt;
} g4_call;
/* Fails for a NULL, in a forked child, while another call is in, and when the call was cancelled before it began.
 * `more` are limits beside the session's own; NULL: none. g4_call_end must follow in any case. */
g4_status g4_call_begin(g4_call *call, const g4_session *s, const g4_limits *more, g4_error *err);
g4_status g4_call_end(g4_call *call, g4_status status);                       /* returns status */
g4_status g4_fork_make(g4_session **out, const g4_session *s, g4_error *err); /* g4_session_fork within a call of s */

/* ---- Timelines (timeline.c) ------------------------------------------------------------------------------------ */

/* What is asked of positions that are evaluated: softcapped logits of each to `row`; or the final states of the last
 * n_states of them, (n_states, hidden), and no logits; or neither: raw logits of the last one. */
typedef struct {
    g4_logits_row_fn row;
    void *user;
    float *states;
    int n_states;
    int is_prompt; /* tell how far it has come */
    int keep;      /* when cancelled, keep what was evaluated */
} g4_wish;
typedef struct {   /* what logits of every position pass through */
    float *states; /* (rows of a chunk, hidden) */
    float *logits; /* (G4_HEAD_ROWS, pad16(vocab)) */
    g4_blocks blocks;
} g4_row_room;
/* Positions [s->n, end) of a timeline, whose tokens and media are in place, on their way through the model: piece by
 * piece, each of which is some rows of a forward pass. */
typedef struct {
    g4_session *s;
    g4_wish wish;
    int start, end, held; /* held: positions that have pages */
    g4_kv_snapshot before;
    g4_row_room room;
} g4_stretch;
/* Begin it; g4_stretch_end must follow also when that fails. */
g4_status g4_stretch_begin(g4_stretch *r, g4_session *s, int end, const g4_wish *wish, g4_error *err);
/* Make room for the next piece: at most `max` positions, or one picture whose tokens see each other, which may be more.
 * *n: their number. */
g4_status g4_stretch_next(const g4_stretch *r, int max, int *n, g4_error *err);
void g4_stretch_fill(const g4_stretch *r, g4_row *rows, int n); /* the next n positions as rows (n) of a forward pass */
/* Keep the states that are wished for of the n positions that were rows [first, first + n) of the last pass. */
void g4_stretch_keep(const g4_stretch *r, int n, int first);
/* n positions are evaluated; a prompt's caller is told and may want no more. */
g4_status g4_stretch_advance(g4_stretch *r, int n, g4_error *err);
/* It is over: the timeline ends where it came to. When `status` says that it failed, it ends where it did before, or
 * with `keep`, cancelled, at or before the place that was reached. Returns status. */
g4_status g4_stretch_end(g4_stretch *r, g4_status status);
g4_status g4_stretch_all(g4_stretch *r, g4_error *err); /* evaluate all that is left, in chunks */
/* Begin, all, end. */
g4_status g4_timeline_run(g4_session *s, int end, const g4_wish *wish, g4_error *err);
/* Have logits of the last position, raw or softcapped; softcapped. */
g4_status g4_timeline_need_raw(g4_session *s, g4_error *err);
g4_status g4_timeline_need_logits(g4_session *s, g4_error *err);
/* Softcapped logits (n, stride) behind final states (n, hidden), n <= G4_HEAD_ROWS. */
g4_status g4_timeline_head(g4_session *s, const float *states, int n, float *logits, size_t stride, g4_error *err);
/* Softcapped logits of the last position, of groups of 16 tokens (n, ascending), when its final state is ready; other
 * logits are left as they are. */
g4_status g4_timeline_head_groups(g4_session *s, const int *groups, int n, float *logits, g4_error *err);

/* Append a prompt and evaluate it; what fails leaves the timeline as it was, but for `keep`. */
g4_status g4_timeline_append(g4_session *s, const g4_prompt *p, const g4_wish *wish, g4_error *err);
g4_status g4_timeline_sync(g4_session *s, const g4_prompt *prompt, int *reused, g4_error *err);
/* The same for a caller that holds a checkpoint: what fails leaves the timeline somewhere between. */
g4_status g4_timeline_follow(g4_session *s, const g4_prompt *prompt, int *reused, g4_error *err);
/* Positions at which timeline and prompt agree: ids, and for soft tokens the same media at the same place; none ends
 * inside a medium. */
int g4_timeline_common(const g4_session *s, const g4_prompt *p);
g4_status g4_timeline_rewind(g4_session *s, int n, g4_error *err);
g4_status g4_timeline_mark(g4_session *s, g4_error *err);
void g4_timeline_clear(g4_session *s); /* all of it, its snapshots too */
/* Cut the timeline to at most n positions without evaluating anything. Returns the position reached: n itself when the
 * windows still hold what its last token saw, else the nearest snapshot before it, else 0. */
int g4_timeline_cut(g4_session *s, int n);
/* The last position <= n that is neither inside the soft tokens of one medium nor between two that see each other. */
int g4_timeline_outside_media(const g4_session *s, int n);
/* Of a fork of a session that is in a call: what was to be evaluated next goes. */
void g4_timeline_settle(g4_session *s);
/* A new session's snapshots become those of `from`, whose pages they share. */
g4_status g4_timeline_copy_marks(g4_session *s, const g4_session *from, g4_error *err);

/* What a timeline was, held by references to its pages, media and snapshots while a call changes it. */
typedef struct {
    int n, first; /* positions; the first that may be overwritten */
    g4_kv_snapshot kv;
    g4_token *tokens; /* [first, n) */
    g4_medium *media;
    g4_snapshot **snapshots;
    int n_media, n_snapshots;
    g4_readiness ready;
    float *state, *logits, *group_max; /* those that are ready */
    g4_blocks blocks;                  /* all arrays above */
} g4_checkpoint;
/* Positions before `first` will stay as they are. One of the others must follow. */
g4_status g4_checkpoint_take(g4_checkpoint *c, const g4_session *s, int first, g4_error *err);
void g4_checkpoint_restore(g4_checkpoint *c, g4_session *s);
void g4_checkpoint_drop(g4_checkpoint *c, const g4_session *s);
/* After a call that ended so: what was done or cancelled stays, what failed is put back. */
void g4_checkpoint_end(g4_checkpoint *c, g4_session *s, g4_status status);

/* g4_timeline_sync for a caller that evaluates `stretch` piece by piece, among others': what a timeline becomes. */
typedef struct {
    g4_stretch stretch;
    g4_checkpoint old;
    int replaces; /* a part of the timeline, which `old` holds */
    int reads;    /* there is something to evaluate */
    int is_again; /* that is the last token, of which no state was kept */
    int reused;   /* positions that are not evaluated again */
} g4_reading;
/* prompt NULL: the timeline stays as it is. What fails leaves it so and needs no end. */
g4_status g4_reading_begin(g4_reading *r, g4_session *s, const g4_prompt *prompt, g4_error *err);
/* All is evaluated, and the state of the last position is there; or it failed. Returns status. */
g4_status g4_reading_end(g4_reading *r, g4_status status);

#endif /* GEMMA4_SESSION_H */
