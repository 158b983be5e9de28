/* control.c - the control tokens that an answer is made of, apart from its text: their names, their ids in a
 * vocabulary, and which of them a token is. Replies, grammars and guides go by them. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <string.h>

static const char *const g4_control_names[G4_N_CONTROLS] = {
    [G4_CONTROL_CHANNEL] = "<|channel>",
    [G4_CONTROL_CHANNEL_END] = "<channel|>",
    [G4_CONTROL_CALL] = "<|tool_call>",
    [G4_CONTROL_CALL_END] = "<tool_call|>",
    [G4_CONTROL_RESPONSE] = "<|tool_response>",
    [G4_CONTROL_QUOTE] = G4_QUOTE,
    [G4_CONTROL_TURN] = "<|turn>",
    [G4_CONTROL_TURN_END] = "<turn|>",
};

void g4_controls_bind(g4_controls *c, const g4_tokenizer *t)
{
    for (int i = 0; i < G4_N_CONTROLS; i++) {
        const char *name = g4_control_names[i];
        c->id[i] = t != NULL && name != NULL ? g4_tokenizer_special(t, name, strlen(name)) : -1;
    }
}

g4_control g4_controls_find(const g4_controls *c, g4_token token)
{
    for (int i = 0; i < G4_N_CONTROLS; i++)
        if (c->id[i] >= 0 && c->id[i] == token) return (g4_control)i;
    return G4_CONTROL_NONE;
}
