/* messages.c - a conversation as the command line keeps it: messages of parts, which own their text and their media;
 * and the file of --session, /save and /load. */
#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- Parts and messages ------------------------------------------------------------------------- */

message_part *part_add(message_part **parts, int *n, g4_part_kind kind)
{
    message_part *grown = realloc(*parts, ((size_t)*n + 1) * sizeof *grown);
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

static int is_medium(const message_part *p) { return p->kind >= G4_PART_IMAGE && p->kind <= G4_PART_VIDEO; }

int part_load(const conversation *c, message_part *p)
{
    g4_media_options opt = media_options(c->args, c->info.has_audio);
    if (!is_medium(p) || p->medium.kind == p->kind) return DONE;
    return medium_load(&p->medium, p->kind, buffer_text(&p->text), p->budget, &opt);
}

int message_add(conversation *c, g4_role role, message_part *parts, int n)
{
    message *grown = realloc(c->messages, ((size_t)c->n + 1) * sizeof *grown);
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

static void messages_free(conversation *c)
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

/* ---- The session file -------------------------------------------------------------------------------
 *
 * Magic, length of the messages (8 bytes), the messages, then what g4_session_save writes. A message is its role and
 * number of parts, a part its kind (and a bit when it is incomplete), budget and three strings, each behind its length;
 * numbers are 4 bytes, little-endian. Raw text has no messages. */
static const char session_magic[] = "G4TALK01";
static const uint32_t incomplete_bit = 1u << 8;
enum { MAGIC_BYTES = sizeof session_magic - 1, LENGTH_BYTES = 8, HEAD_BYTES = MAGIC_BYTES + LENGTH_BYTES };

static void put_u32(buffer *b, uint64_t x)
{
    unsigned char bytes[4] = { (unsigned char)x, (unsigned char)(x >> 8), (unsigned char)(x >> 16),
                               (unsigned char)(x >> 24) };
    buffer_add(b, bytes, 4);
}

static void put_string(buffer *b, const buffer *string)
{
    put_u32(b, string->len);
    buffer_add(b, string->data, string->len);
}

static void put_message(buffer *b, const message *m)
{
    put_u32(b, m->role);
    put_u32(b, (uint64_t)m->n);
    for (int i = 0; i < m->n; i++) {
        put_u32(b, m->parts[i].kind | (m->parts[i].incomplete ? incomplete_bit : 0));
        put_u32(b, (uint64_t)m->parts[i].budget);
        put_string(b, &m->parts[i].text);
        put_string(b, &m->parts[i].name);
        put_string(b, &m->parts[i].id);
    }
}

int conversation_save(const conversation *c, const char *path)
{
    output_file out;
    g4_error err;
    buffer b = { 0 };
    unsigned char head[HEAD_BYTES];
    int status = output_open(&out, path);
    if (status != DONE) return status;
    for (int i = 0; i < c->n; i++) put_message(&b, &c->messages[i]);
    memcpy(head, session_magic, MAGIC_BYTES);
    for (int i = 0; i < LENGTH_BYTES; i++) head[MAGIC_BYTES + i] = (unsigned char)((uint64_t)b.len >> (8 * i));
    if (b.failed) {
        status = say(FAILED, "no memory for %s", path);
    } else if (output_write(&out, head, sizeof head) == 0 && output_write(&out, b.data, b.len) == 0 &&
               g4_session_save(c->session, output_write, &out, &err) != G4_OK && !ferror(out.f) && !interrupted()) {
        status = report(&err);
    }
    buffer_free(&b);
    return output_close(&out, status); /* says so when a write failed, and returns an interrupt */
}

/* Bytes that are read from front to back. After a read past their end `bad` stays set, and numbers are 0. */
typedef struct {
    const unsigned char *data;
    size_t n;
    int bad;
} unread;

static const unsigned char *take(unread *u, size_t n)
{
    const unsigned char *bytes = u->data;
    if (u->bad || n > u->n) {
        u->bad = 1;
        return NULL;
    }
    u->data += n;
    u->n -= n;
    return bytes;
}

static uint32_t take_u32(unread *u)
{
    const unsigned char *b = take(u, 4);
    return b == NULL ? 0 : (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static void take_string(unread *u, buffer *out)
{
    uint32_t len = take_u32(u);
    const unsigned char *bytes = take(u, len);
    if (bytes != NULL && len > 0) buffer_add(out, bytes, len);
}

/* The caller tells the user of damage. */
static int take_message(conversation *c, unread *u)
{
    message_part *parts = NULL;
    int n = 0;
    uint32_t role = take_u32(u), n_parts = take_u32(u);
    if (role > G4_ROLE_TOOL) u->bad = 1;
    for (uint32_t i = 0; i < n_parts && !u->bad; i++) {
        uint32_t flags = take_u32(u), kind = flags & ~incomplete_bit, budget = take_u32(u);
        if (kind > G4_PART_TOOL_RESULT || budget > INT_MAX) u->bad = 1;
        message_part *p = u->bad ? NULL : part_add(&parts, &n, (g4_part_kind)kind);
        if (p == NULL) break;
        p->budget = (int)budget;
        take_string(u, &p->text);
        take_string(u, &p->name);
        take_string(u, &p->id);
        /* files of 0.1 hold calls that never got to their name, without the bit */
        p->incomplete = flags != kind || (kind == G4_PART_TOOL_CALL && p->name.len == 0);
    }
    if (!u->bad && (uint32_t)n == n_parts) return message_add(c, (g4_role)role, parts, n);
    parts_free(parts, n);
    return FAILED;
}

static int take_messages(conversation *c, unread u, const char *path)
{
    int status = DONE;
    while (status == DONE && u.n > 0) status = take_message(c, &u);
    return u.bad ? say(FAILED, "%s: its messages are damaged", path) : status;
}

/* The messages of a session file into new memory, the caller's to free. */
static int read_messages(const conversation *c, FILE *f, const char *path, unsigned char **data, size_t *n)
{
    unsigned char head[HEAD_BYTES];
    uint64_t len = 0;
    if (fread(head, 1, sizeof head, f) != sizeof head || memcmp(head, session_magic, MAGIC_BYTES) != 0) {
        return say(FAILED, "%s is not a session file", path);
    }
    for (int i = HEAD_BYTES; i > MAGIC_BYTES; i--) len = len << 8 | head[i - 1];
    if (len > 1u << 30) return say(FAILED, "%s is damaged", path);
    if (len > 0 && c->raw) return say(FAILED, "%s holds a chat: go on without --raw", path);
    *n = (size_t)len;
    *data = malloc(*n + 1);
    if (*data == NULL) return say(FAILED, "no memory for %s", path);
    return fread(*data, 1, *n, f) == *n ? DONE : say(FAILED, "%s is truncated", path);
}

static int on_read(void *user, void *data, size_t size) { return fread(data, 1, size, user) != size; }

/* What was said so far is replaced only when all of the file could be read. */
static int load_session(conversation *c, FILE *f, const char *path, const g4_session_options *setup)
{
    conversation loaded = { 0 }; /* its messages alone */
    g4_session *session = NULL;
    g4_error err;
    unsigned char *data = NULL;
    size_t n = 0;
    int status = read_messages(c, f, path, &data, &n);
    if (status == DONE) status = take_messages(&loaded, (unread) { .data = data, .n = n }, path);
    if (status == DONE && g4_session_load(&session, c->engine, setup, on_read, f, &err) != G4_OK) {
        status = say(FAILED, "%s: %s", path, err.message);
    }
    if (status == DONE && n == 0 && !c->raw && g4_session_n(session) > 0) { /* an empty chat holds neither */
        status = say(FAILED, "%s holds raw text: go on with --raw", path);
    }
    free(data);
    if (status != DONE) {
        messages_free(&loaded);
        g4_session_close(session);
        return status;
    }
    messages_free(c);
    g4_session_close(c->session);
    c->session = session;
    c->messages = loaded.messages;
    c->n = loaded.n;
    c->has_forgotten = 0;
    return status;
}

int conversation_open(conversation *c, const char *path)
{
    g4_session_options setup = session_options(c->args, &c->progress);
    g4_error err;
    FILE *f = path != NULL ? fopen(path, "rb") : NULL;
    c->progress.loader = &c->loader;
    if (path != NULL && f == NULL && errno != ENOENT) {
        return say(FAILED, "cannot read %s: %s", path, strerror(errno));
    }
    if (f == NULL) return g4_session_open(&c->session, c->engine, &setup, &err) == G4_OK ? DONE : report(&err);
    int status = load_session(c, f, path, &setup);
    fclose(f);
    return status;
}
