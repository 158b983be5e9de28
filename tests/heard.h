/* heard.h - a g4_generate_options.output that keeps the tokens of a reply, and can stop it. */
#ifndef G4_HEARD_H
#define G4_HEARD_H

#include "gemma4.h"

#define G4_HEARD_MAX 128

typedef struct {
    g4_token tokens[G4_HEARD_MAX];
    int n, stop_at; /* stop_at: tokens after which the reply is stopped, 0: never */
} g4_heard;

static int g4_hear(void *user, const g4_output *out)
{
    g4_heard *h = user;
    if (out->token >= 0 && h->n < G4_HEARD_MAX) h->tokens[h->n++] = out->token;
    return h->stop_at > 0 && h->n == h->stop_at;
}

#endif
