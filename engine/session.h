/* session.h - the floor of the objects that users hold: engines and sessions. */
#ifndef GEMMA4_SESSION_H
#define GEMMA4_SESSION_H

#include "parts.h"
#include "../media/media.h"

/* ---- Prompts: token ids and soft tokens ------------------------------------------------------ */

struct g4_soft {
    int refs;        /* changed under the engine's lock only */
    g4_token token;  /* its placeholder id */
    uint64_t key[2]; /* hash of the decoded data, kind, budget: equal keys are equal pictures */
    int n;           /* soft tokens */
    float *rows;     /* (n, hidden) */
};
void g4_soft_retain(g4_engine *e, g4_soft *soft);
void g4_soft_release(g4_engine *e, g4_soft *soft); /* frees it with the last reference; NULL is fine */

const g4_allocator *g4_engine_allocator(const g4_engine *e);
const g4_tokenizer *g4_engine_tokenizer(const g4_engine *e);
const g4_config *g4_engine_config(const g4_engine *e);
void g4_engine_log(const g4_engine *e, g4_log_level level, const char *fmt, ...) G4_PRINTF(3, 4);

uint64_t g4_session_n_head_rows(const g4_session *s); /* rows of the vocabulary head computed so far, for tests */

#endif /* GEMMA4_SESSION_H */
