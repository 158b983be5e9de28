/* session.h - the floor of the objects that users hold: engines and sessions (engine.c, residency.c, encode.c,
 * session.c, state.c). */
#ifndef GEMMA4_SESSION_H
#define GEMMA4_SESSION_H

#include "towers.h"

#include <pthread.h>

/* ---- Engine (engine.c) --------------------------------------------------------------------------------- */

struct g4_engine {
    g4_allocator allocator;
    const g4_allocator *a; /* &allocator, or NULL for malloc */
    g4_log_fn log;
    void *log_user;
    g4_file file;
    g4_tokenizer tokenizer;
    g4_compute compute;
    g4_model model;
    g4_vision *vision; /* NULL: the file has none */
    g4_hearing *hearing;
    g4_soft_cache softs;
    g4_blocks blocks;      /* the two below and what `compute` gives its threads */
    g4_row *rows;          /* (rows of a pass): what goes through the model next */
    float *logits;         /* (G4_HEAD_ROWS, pad16(n_vocab)): where the logits of every position are wanted */
    pthread_mutex_t *lock; /* own_lock: of what one forward pass at a time uses, also through a const engine */
    pthread_mutex_t own_lock;
    int lock_ready;
    uint64_t work_bytes;  /* of buffers */
    uint64_t fingerprint; /* of configuration and weights, for saved states; computed at the first save or load */
};

/* The lock guards threads, buffers, pages and remembered soft tokens; it is held for the length of a forward pass. */
void g4_engine_lock(const g4_engine *e);
void g4_engine_unlock(const g4_engine *e);
const g4_allocator *g4_engine_allocator(const g4_engine *e);
const g4_tokenizer *g4_engine_tokenizer(const g4_engine *e);
const g4_config *g4_engine_config(const g4_engine *e);
void g4_engine_log(const g4_engine *e, g4_log_level level, const char *fmt, ...) G4_PRINTF(3, 4);

/* ---- Memory (residency.c) --------------------------------------------------------------------------------- */

/* Tell the system how the file is read; advice, so it cannot fail. */
void g4_file_advise(const g4_file *f);
g4_status g4_file_lock(g4_file *f, g4_error *err); /* mlock what every token reads */
void g4_file_unlock(const g4_file *f);             /* what g4_file_lock locked, where unmapping does not do so */
g4_status g4_file_use_huge_pages(const g4_file *f, const char *path, g4_error *err); /* copy it into huge pages */
/* Is this a tensor of the text decoder that is multiplied? (Every token reads it, or with experts may.) */
int g4_is_decoder_weight(const g4_tensor_entry *t);
/* Bytes available without swapping, by the system's own estimate and the control group's limit; 0 if unknown. */
uint64_t g4_available_memory(void);

/* ---- Session (session.c) ----------------------------------------------------------------------------------- */

typedef struct { /* a position that can be returned to */
    int pos;
    g4_kv_snapshot kv;
} g4_snapshot;

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
    int n;            /* positions evaluated */
    g4_token *tokens; /* (n_ctx) */
    g4_medium *media; /* by position */
    int n_media, cap_media;
    g4_kv kv;
    g4_snapshot *snapshots; /* by position */
    int n_snapshots, cap_snapshots;
    g4_blocks blocks; /* of fixed size: tokens, and all below */
    g4_readiness ready;
    float *state;               /* (hidden): of the last position, before its norm */
    float *logits;              /* (vocab): of the last position */
    float *group_max;           /* (vocab / 16) */
    float *work;                /* (vocab): logits after penalties */
    g4_candidate *candidates;   /* (vocab) */
    uint32_t *mask, *seen;      /* (vocab / 32 + 1): what the constraint allows; what the timeline holds */
    uint64_t n_evaluated;       /* positions run through the model */
    uint64_t n_head_rows;       /* rows of the vocabulary head computed ... */
    uint64_t n_guessed, n_held; /* ... guesses evaluated, and those that were right: for tests and benches */
};

/* What is asked of positions that are evaluated: softcapped logits of each to `row`; or the final states of the last
 * n_states of them, (n_states, hidden), and no logits; or neither: raw logits of the last one. */
typedef struct {
    g4_logits_row_fn row;
    void *user;
    float *states;
    int n_states;
} g4_wish;
/* Evaluate positions [s->n, end) of the timeline, whose tokens and media are in place. On failure the timeline is cut
 * back to where it was. */
g4_status g4_session_run(g4_session *s, int end, const g4_wish *wish, g4_error *err);
/* Have logits of the last position, raw or softcapped; softcapped. */
g4_status g4_session_need_raw(g4_session *s, g4_error *err);
g4_status g4_session_need_logits(g4_session *s, g4_error *err);
/* Softcapped logits (n, stride) behind final states (n, hidden), n <= G4_HEAD_ROWS. */
void g4_session_head(g4_session *s, const float *states, int n, float *logits, size_t stride);
/* Softcapped logits of the last position, of groups of 16 tokens (n, ascending), when its final state is ready; other
 * logits are left as they are. */
void g4_session_head_groups(g4_session *s, const int *groups, int n, float *logits);
uint64_t g4_session_n_head_rows(const g4_session *s); /* rows of the vocabulary head computed so far, for tests */

#endif /* GEMMA4_SESSION_H */
