/* messages.c - a conversation as the command line keeps it: messages of parts, which own their text and their media. */
#include "cli.h"

#include <limits.h>
#include <stdlib.h>

/* ---- Parts and messages ------------------------------------------------------------------------- */

/* An array of n elements with room for one more; NULL: no memory, and the array is as it was. Its room doubles where n
 * is a power of two, so that n elements cost time in proportion to n. */
static void *array_grow(void *array, int n, size_t size)
{
    if (n > 0 && (n & (n - 1)) != 0) return array;
    return n <= INT_MAX / 2 ? realloc(array, (size_t)(n == 0 ? 1 : 2 * n) * size) : NULL;
}

message_part *part_add(message_part **parts, int *n, g4_part_kind kind)
{
    message_part *grown = array_grow(*parts, *n, sizeof *grown);
    if (grown == NULL) {
        say(FAILED, "no memory for a message");
        return NULL;
    }
    *parts = grown;
    grown[*n] = (message_part) { .kind = kind };
    return &grown[(*n)++];
}

void parts_free(message_part *parts, int n)
{
    for (int i = 0; i < n; i++) {
        buffer_free(&parts[i].text);
        buffer_free(&parts[i].name);
        buffer_free(&parts[i].id);
        medium_free(&parts[i].medium);
    }
    free(parts);
}

int part_is_medium(const message_part *p) { return p->kind >= G4_PART_IMAGE && p->kind <= G4_PART_VIDEO; }

int part_load(const conversation *c, message_part *p)
{
    g4_media_options opt = media_options(c->args, c->info.has_audio);
    if (!part_is_medium(p) || p->medium.kind == p->kind) return DONE;
    opt.frame_side = c->info.vision_side;
    return medium_load(&p->medium, p->kind, buffer_text(&p->text), p->budget, &opt);
}

int message_add(conversation *c, g4_role role, message_part *parts, int n)
{
    message *grown = array_grow(c->messages, c->n, sizeof *grown);
    int failed = grown == NULL;
    if (grown != NULL) c->messages = grown;
    for (int i = 0; i < n; i++) failed |= parts[i].text.failed || parts[i].name.failed || parts[i].id.failed;
    if (failed) {
        parts_free(parts, n);
        return say(FAILED, "no memory for a message");
    }
    c->messages[c->n++] = (message) { role, parts, n };
    return DONE;
}

void conversation_cut(conversation *c, int n)
{
    c->has_forgotten |= c->n > n;
    while (c->n > n) {
        c->n--;
        parts_free(c->messages[c->n].parts, c->messages[c->n].n);
    }
}

void messages_free(conversation *c)
{
    conversation_cut(c, 0);
    free(c->messages);
}

void conversation_free(conversation *c)
{
    loader_end(&c->loader);
    messages_free(c);
    parts_free(c->pending, c->n_pending);
    g4_grammar_close(c->guide.grammar);
    g4_grammar_close(c->guide.tools);
    buffer_free(&c->tools);
    g4_request_close(c->request);
    g4_session_close(c->session);
    g4_engine_close(c->engine);
}

/* ---- As the library takes it ---------------------------------------------------------------------- */

static int load_all_media(conversation *c)
{
    int status = DONE;
    for (int i = 0; status == DONE && i < c->n; i++) {
        for (int j = 0; status == DONE && j < c->messages[i].n; j++) status = part_load(c, &c->messages[i].parts[j]);
    }
    return status;
}

static int messages_chat(conversation *c, const g4_chat_options *opt, g4_chat **chat)
{
    g4_error err;
    size_t n_parts = 0;
    int status = load_all_media(c);
    for (int i = 0; i < c->n; i++) n_parts += (size_t)c->messages[i].n;
    g4_message *messages = calloc((size_t)c->n + 1, sizeof *messages);
    g4_part *parts = calloc(n_parts + 1, sizeof *parts), *part = parts;
    if (status == DONE && (messages == NULL || parts == NULL)) status = say(FAILED, "no memory for the conversation");
    for (int i = 0; status == DONE && i < c->n; i++) {
        const message *m = &c->messages[i];
        messages[i] = (g4_message) { .role = m->role, .parts = part, .n_parts = m->n };
        for (int j = 0; j < m->n; j++) {
            const message_part *p = &m->parts[j];
            *part++ = (g4_part) { .kind = p->kind,
                                  .text = buffer_text(&p->text),
                                  .text_len = p->text.len,
                                  .name = p->name.data,
                                  .id = p->id.data,
                                  .incomplete = p->incomplete,
                                  .image = &p->medium.image,
                                  .audio = &p->medium.audio,
                                  .video = &p->medium.video };
        }
    }
    if (status == DONE && g4_chat_open(chat, c->engine, messages, c->n, opt, &err) != G4_OK) status = report(&err);
    free(messages);
    free(parts);
    return status;
}

int conversation_chat(conversation *c, g4_chat **chat)
{
    g4_chat_options opt = { .tools = c->tools.data, .tools_len = c->tools.len, .thinking = c->thinking };
    return c->request != NULL ? document_chat(c, &opt, chat) : messages_chat(c, &opt, chat);
}
