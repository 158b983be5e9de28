/* room.c - a conversation that outgrows its context: what does not fit is said, or makes room for what is new; and what
 * was taken back leaves the session. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* ---- Turns ---------------------------------------------------------------------------------------- */

/* A turn is a message of the user and all that follows it up to the next one, calls and their results included. What
 * stands in front of the first belongs to it, but for instructions, which belong to none. */
static int first_message(const conversation *c)
{
    int i = 0;
    while (i < c->n && (c->messages[i].role == G4_ROLE_SYSTEM || c->messages[i].role == G4_ROLE_DEVELOPER)) i++;
    return i;
}

static int next_turn(const conversation *c, int i)
{
    do i++;
    while (i < c->n && c->messages[i].role != G4_ROLE_USER);
    return i;
}

static int count_turns(const conversation *c)
{
    int n = 0;
    for (int i = first_message(c); i < c->n; i = next_turn(c, i)) n++;
    return n;
}

/* The message behind the first n turns. */
static int behind_turns(const conversation *c, int n)
{
    int i = first_message(c);
    while (n-- > 0) i = next_turn(c, i);
    return i;
}

/* The conversation without its first n turns, and its tokens. *chat borrows from c and is the caller's to close, also
 * after a failure. */
static int chat_without(const conversation *c, int n, g4_chat **chat, int *n_tokens)
{
    conversation rest = *c;
    g4_prompt prompt;
    g4_error err;
    int n_front = first_message(c), from = behind_turns(c, n);
    rest.n = n_front + c->n - from;
    rest.messages = malloc(((size_t)rest.n + 1) * sizeof *rest.messages);
    if (rest.messages == NULL) return say(FAILED, "no memory for the conversation");
    memcpy(rest.messages, c->messages, (size_t)n_front * sizeof *rest.messages);
    memcpy(rest.messages + n_front, c->messages + from, (size_t)(c->n - from) * sizeof *rest.messages);
    int status = conversation_chat(&rest, chat);
    free(rest.messages);
    if (status == DONE && g4_chat_prompt(*chat, &prompt, &err) != G4_OK) status = report(&err);
    if (status == DONE) *n_tokens = prompt.n;
    return status;
}

static void forget_turns(conversation *c, int n)
{
    int n_front = first_message(c), from = behind_turns(c, n);
    for (int i = n_front; i < from; i++) parts_free(c->messages[i].parts, c->messages[i].n);
    memmove(c->messages + n_front, c->messages + from, (size_t)(c->n - from) * sizeof *c->messages);
    c->n -= from - n_front;
    c->has_forgotten = 1;
}

/* ---- Room for an answer --------------------------------------------------------------------------- */

/* Tokens that are kept free for it: those of -n, or a quarter of the context; of a long -n half of the context. */
static int room_wanted(const conversation *c)
{
    int n_ctx = g4_session_n_ctx(c->session), n = c->args->max_tokens;
    if (n < 0) return n_ctx / 4;
    return n < n_ctx / 2 ? n : n_ctx / 2;
}

/* How many of the oldest turns must go, found by halving: the fewer are left, the fewer tokens they have. The last turn
 * stays. When not even that leaves room, 0, if it does not fit at all, else all others. */
static int turns_to_forget(const conversation *c, int *n)
{
    int most = count_turns(c) - 1, low = 0, high = most > 0 ? most : 0, limit = g4_session_n_ctx(c->session);
    int status = DONE, n_tokens = 0;
    for (int i = 0; status == DONE && low < high; i = (low + high) / 2) { /* most often all fit */
        g4_chat *chat = NULL;
        status = chat_without(c, i, &chat, &n_tokens);
        g4_chat_close(chat);
        if (n_tokens + room_wanted(c) <= limit)
            high = i;
        else
            low = i + 1;
    }
    *n = high;
    if (status != DONE || high != most || most <= 0) return status;
    g4_chat *chat = NULL;
    status = chat_without(c, most, &chat, &n_tokens);
    g4_chat_close(chat);
    if (n_tokens >= limit) *n = 0;
    return status;
}

int conversation_fit(conversation *c, g4_chat **chat)
{
    int n = 0;
    int status = c->args->context_shift && c->request == NULL ? turns_to_forget(c, &n) : DONE;
    if (status == DONE && n > 0) {
        forget_turns(c, n);
        say(DONE, "the context is full: %d turn%s dropped, oldest first", n, n == 1 ? "" : "s");
    }
    return status == DONE ? conversation_chat(c, chat) : status;
}

/* What can be done, behind what is wrong. */
static void add_remedies(const conversation *c, buffer *b)
{
    int max_ctx = c->info.max_ctx, n_turns = count_turns(c);
    const char *join = "; ";
    if (c->on_terminal && n_turns > 1) {
        buffer_fmt(b, "%s/clear starts anew, /undo forgets a turn", join);
        join = ", ";
    }
    if (g4_session_n_ctx(c->session) < max_ctx) {
        buffer_fmt(b, "%s-c N gives more room (up to %d)", join, max_ctx);
        join = ", ";
    }
    if (!c->args->context_shift && n_turns > 1) buffer_fmt(b, "%s--context-shift drops the oldest turns", join);
}

static int say_full(const conversation *c, buffer *b)
{
    add_remedies(c, b);
    int status = say(FAILED, "%s", b->failed ? "the context is full" : b->data);
    buffer_free(b);
    return status;
}

int conversation_too_long(const conversation *c)
{
    buffer b = { 0 };
    g4_chat *chat = NULL;
    int n_turns = count_turns(c), n_tokens = 0, shifts = c->args->context_shift && n_turns > 1;
    const char *what = shifts        ? "the message is too long: without the turns before it the chat has"
                       : n_turns > 1 ? "the context is full: with this message the chat has"
                                     : "the prompt is too long:";
    int status = chat_without(c, shifts ? n_turns - 1 : 0, &chat, &n_tokens);
    g4_chat_close(chat);
    if (status != DONE) return status;
    buffer_fmt(&b, "%s %d tokens, the context %d", what, n_tokens, g4_session_n_ctx(c->session));
    return say_full(c, &b);
}

void conversation_full(const conversation *c)
{
    buffer b = { 0 };
    buffer_fmt(&b, "the context is full, all %d tokens of it, and the answer ends here", g4_session_n_ctx(c->session));
    say_full(c, &b);
}

/* ---- What was taken back -------------------------------------------------------------------------- */

int conversation_settle(conversation *c)
{
    g4_error err;
    g4_chat *chat = NULL;
    int status = DONE;
    if (!c->has_forgotten) return DONE;
    if (c->n > 0) status = conversation_chat(c, &chat);
    if (status == DONE && c->n == 0 && g4_session_rewind(c->session, 0, &err) != G4_OK) status = report(&err);
    if (status == DONE && c->n > 0 && g4_session_sync_chat(c->session, chat, NULL, &err) != G4_OK)
        status = report(&err);
    if (status == DONE) c->has_forgotten = 0;
    progress_end(&c->progress);
    g4_chat_close(chat);
    return status;
}
