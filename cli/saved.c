/* saved.c - the file of --session, /save and /load: the messages with their media, then what g4_session_save writes.
 *
 * It holds all it needs, so that it names no file to open: of a picture its pixels, of a sound its samples, of a video
 * both. Whose hands it went through nobody knows: every number is checked before it is used, every count against the
 * bytes that are there, so that memory and time are in proportion to the size of the file. What is written can be read:
 * there are no other limits. Numbers are little-endian.
 *
 *   magic "G4TALK03", u64 bytes of the messages, the messages, u64 checksum of them, the timeline of the library
 *   message   u32 role, u32 number of parts, the parts
 *   part      u32 kind (and a bit when it is incomplete), u32 budget; text, name and id, each behind its u32 length; of
 *             a picture, sound or video, whose text is empty: the medium
 *   medium    u32 number of frames (of a picture 1), u32 is there sound?, u64 samples; of each frame u32 width, u32
 *             height, f64 seconds, u32 soft tokens that it was scaled for when it was loaded, or 0; the samples, f32 at
 *             16 kHz; the pixels of the frames, 3 bytes each
 *
 * Nothing follows. Raw text has no messages. "G4TALK02" has no fourth number of a frame, and names the files that media
 * were read from, which is not looked at; "G4TALK01" is the format of 0.1: without media and checksum. */
#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAGIC_BYTES = 8, OLD_VERSION = 1, UNSCALED_VERSION = 2, VERSION = 3 };
static const char session_magic[] = "G4TALK0"; /* and the version as a digit */
static const uint32_t incomplete_bit = 1u << 8;

/* The fewest bytes of a part and of the head of a frame, and what stands around the messages. */
enum { PART_BYTES = 20, FRAME_BYTES = 16, HEAD_BYTES = MAGIC_BYTES + 8, CHECKSUM_BYTES = 8 };
static const double max_seconds = 1e9; /* the time of a frame */

/* FNV-1a, 64 bits: against damage. */
static uint64_t checksum(uint64_t sum, const void *data, size_t n)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < n; i++) sum = (sum ^ bytes[i]) * UINT64_C(0x100000001b3);
    return sum;
}
static const uint64_t checksum_start = UINT64_C(0xcbf29ce484222325);

/* ---- Media ------------------------------------------------------------------------------------------- */

/* A medium without its kind. */
typedef struct {
    const g4_image *frames;
    const double *seconds; /* NULL: a picture */
    const g4_audio *sound; /* NULL: none */
    int n_frames;
} content;

static content content_of(const medium *m)
{
    switch (m->kind) {
    case G4_PART_IMAGE: return (content) { .frames = &m->image, .n_frames = 1 };
    case G4_PART_AUDIO: return (content) { .sound = &m->audio };
    case G4_PART_VIDEO: {
        const g4_video *v = &m->video;
        return (content) { v->frames, v->seconds, v->sound, v->n_frames };
    }
    default: return (content) { 0 };
    }
}

/* What a file says of a medium before its samples and pixels come. */
typedef struct {
    uint32_t n_frames, has_sound;
    uint64_t n_samples;
} content_head;
typedef struct {
    uint32_t width, height, fitted;
    double seconds;
} frame_head;

static size_t pixel_bytes(const frame_head *f) { return 3 * (size_t)f->width * f->height; }

/* ---- Writing ----------------------------------------------------------------------------------------- */

typedef struct {
    output_file *out; /* NULL: count */
    uint64_t bytes, sum;
    int failed;
} writer;

static void put(writer *w, const void *data, size_t n)
{
    w->bytes += n;
    if (w->out == NULL || w->failed) return;
    w->sum = checksum(w->sum, data, n);
    w->failed = output_write(w->out, data, n);
}

static void put_number(writer *w, uint64_t x, int n_bytes)
{
    unsigned char bytes[8];
    for (int i = 0; i < n_bytes; i++) bytes[i] = (unsigned char)(x >> (8 * i));
    put(w, bytes, (size_t)n_bytes);
}
static void put_u32(writer *w, uint32_t x) { put_number(w, x, 4); }
static void put_u64(writer *w, uint64_t x) { put_number(w, x, 8); }

static void put_string(writer *w, const buffer *string)
{
    put_u32(w, (uint32_t)string->len);
    put(w, buffer_text(string), string->len);
}

static void put_double(writer *w, double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    put_u64(w, bits);
}

static void put_medium(writer *w, const medium *m)
{
    const content c = content_of(m);
    put_u32(w, (uint32_t)c.n_frames);
    put_u32(w, c.sound != NULL);
    put_u64(w, c.sound != NULL ? c.sound->n_samples : 0);
    for (int i = 0; i < c.n_frames; i++) {
        put_u32(w, (uint32_t)c.frames[i].width);
        put_u32(w, (uint32_t)c.frames[i].height);
        put_double(w, c.seconds != NULL ? c.seconds[i] : 0);
        put_u32(w, (uint32_t)c.frames[i].fitted);
    }
    if (c.sound != NULL) put(w, c.sound->samples, c.sound->n_samples * sizeof *c.sound->samples);
    for (int i = 0; i < c.n_frames; i++) {
        const g4_image *f = &c.frames[i];
        const size_t row = 3 * (size_t)f->width, stride = f->stride != 0 ? f->stride : row;
        for (size_t y = 0; y < (size_t)f->height; y++) put(w, f->pixels + y * stride, row);
    }
}

static void put_messages(writer *w, const conversation *c)
{
    static const buffer nothing = { 0 };
    for (int i = 0; i < c->n; i++) {
        const message *m = &c->messages[i];
        put_u32(w, m->role);
        put_u32(w, (uint32_t)m->n);
        for (int j = 0; j < m->n; j++) {
            const message_part *p = &m->parts[j];
            put_u32(w, p->kind | (p->incomplete ? incomplete_bit : 0));
            put_u32(w, (uint32_t)p->budget);
            put_string(w, part_is_medium(p) ? &nothing : &p->text); /* where it was read from is nobody's business */
            put_string(w, &p->name);
            put_string(w, &p->id);
            if (part_is_medium(p)) put_medium(w, &p->medium);
        }
    }
}

static int times_are_whole(const medium *m)
{
    const content c = content_of(m);
    for (int i = 0; c.seconds != NULL && i < c.n_frames; i++)
        if (!(c.seconds[i] >= 0 && c.seconds[i] <= max_seconds)) return 0;
    return 1;
}

/* A file without its pictures could not be gone on with, and what could not be read again is not written. */
static int check_part(const message_part *p, const char *path)
{
    const buffer *strings[] = { &p->text, &p->name, &p->id };
    for (int i = 0; i < 3; i++) {
        if (strings[i]->len > UINT32_MAX) return say(FAILED, "cannot write %s: a text of more than 4 GiB", path);
    }
    if (!part_is_medium(p)) return DONE;
    if (p->medium.kind != p->kind)
        return say(FAILED, "cannot write %s: %s was never loaded", path, buffer_text(&p->text));
    if (!times_are_whole(&p->medium)) {
        return say(FAILED, "cannot write %s: %s has a frame that comes after more than %.0f seconds", path,
                   buffer_text(&p->text), max_seconds);
    }
    return DONE;
}

static int check_parts(const conversation *c, const char *path)
{
    int status = DONE;
    for (int i = 0; i < c->n; i++) {
        for (int j = 0; j < c->messages[i].n && status == DONE; j++)
            status = check_part(&c->messages[i].parts[j], path);
    }
    return status;
}

static int write_session(const conversation *c, const char *path, output_file *out)
{
    writer counted = { 0 }, head = { .out = out }, w = { .out = out, .sum = checksum_start };
    g4_error err;
    int status = check_parts(c, path);
    if (status != DONE) return status;
    put_messages(&counted, c);
    put(&head, session_magic, MAGIC_BYTES - 1);
    put_number(&head, '0' + VERSION, 1);
    put_u64(&head, counted.bytes);
    if (!head.failed) put_messages(&w, c);
    const uint64_t sum = w.sum;
    put_u64(&w, sum);
    if (head.failed || w.failed || g4_session_save(c->session, output_write, out, &err) == G4_OK) return DONE;
    return ferror(out->f) || interrupted() ? DONE : report(&err); /* output_close says what a write could not do */
}

int session_check(const char *path)
{
    char magic[MAGIC_BYTES];
    FILE *f = NULL;
    int status = regular_open(&f, path);
    if (status != DONE || f == NULL) return status;
    const size_t n = fread(magic, 1, sizeof magic, f);
    if (n > 0 && (n < sizeof magic || memcmp(magic, session_magic, MAGIC_BYTES - 1) != 0))
        status = say(FAILED, "%s is there and is no session: it stays as it is", path);
    fclose(f);
    return status;
}

int conversation_save(const conversation *c, const char *path)
{
    output_file out;
    int status = output_open(&out, path);
    if (status != DONE) return status;
    return output_close(&out, write_session(c, path, &out));
}

/* ---- Reading ----------------------------------------------------------------------------------------- */

/* The messages of a file, read from front to back. After damage, or a read past their end, `bad` stays set and numbers
 * are 0. */
typedef struct {
    FILE *f;
    uint64_t left; /* bytes */
    uint64_t sum;
    int version;
    int bad, failed; /* failed: it has been said why */
} reader;

static int stopped(const reader *r) { return r->bad || r->failed; }

static void take(reader *r, void *data, size_t n)
{
    enum { PIECE = 1 << 20 }; /* bytes between two looks whether the user has enough */
    if (n > r->left) r->bad = 1;
    for (size_t done = 0; done < n && !stopped(r);) {
        const size_t piece = n - done < PIECE ? n - done : PIECE;
        if (interrupted()) r->failed = interrupted();
        if (fread((char *)data + done, 1, piece, r->f) != piece) r->bad = 1;
        done += piece;
    }
    if (stopped(r)) {
        memset(data, 0, n);
        return;
    }
    r->left -= n;
    r->sum = checksum(r->sum, data, n);
}

static uint64_t take_number(reader *r, int n_bytes)
{
    unsigned char bytes[8] = { 0 };
    uint64_t x = 0;
    take(r, bytes, (size_t)n_bytes);
    for (int i = n_bytes; i > 0; i--) x = x << 8 | bytes[i - 1];
    return x;
}
static uint32_t take_u32(reader *r) { return (uint32_t)take_number(r, 4); }
static uint64_t take_u64(reader *r) { return take_number(r, 8); }

static double take_double(reader *r)
{
    const uint64_t bits = take_u64(r);
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Piece by piece, so that memory is taken for what is there. */
static void take_string(reader *r, buffer *out)
{
    char piece[4096];
    uint32_t len = take_u32(r);
    if (len > r->left) r->bad = 1;
    for (size_t n; len > 0 && !stopped(r); len -= (uint32_t)n) {
        n = len < sizeof piece ? len : sizeof piece;
        take(r, piece, n);
        if (!stopped(r)) buffer_add(out, piece, n);
    }
}

/* What a medium of that kind may say of itself with `left` bytes behind it; *size gets those of its samples and
 * pixels. */
static int content_is_whole(g4_part_kind kind, const content_head *h, const frame_head *frames, uint64_t left,
                            uint64_t *size)
{
    const int has_sound = kind == G4_PART_AUDIO || (kind == G4_PART_VIDEO && h->has_sound == 1);
    if (h->has_sound != (uint32_t)has_sound || h->n_samples > (has_sound ? left / sizeof(float) : 0)) return 0;
    *size = h->n_samples * sizeof(float);
    if (kind != G4_PART_VIDEO && h->n_frames != (kind == G4_PART_IMAGE)) return 0;
    for (uint32_t i = 0; i < h->n_frames; i++) {
        const uint64_t width = frames[i].width, height = frames[i].height;
        if (width < 1 || width > INT_MAX || height < 1 || height > INT_MAX) return 0;
        if (width > (left - *size) / 3 / height) return 0;
        if (!(frames[i].seconds >= 0 && frames[i].seconds <= max_seconds) || frames[i].fitted > INT_MAX) return 0;
        *size += pixel_bytes(&frames[i]);
    }
    return 1;
}

/* One block: the pictures, their times, the sound, its samples, their pixels. */
typedef struct {
    g4_image *frames;
    double *seconds;
    g4_audio *sound;
    float *samples;
    uint8_t *pixels;
} content_block;

static void *content_open(content_block *b, const content_head *h, uint64_t size)
{
    const size_t n = h->n_frames;
    const size_t fixed = n * (sizeof *b->frames + sizeof *b->seconds) + sizeof *b->sound;
    char *block = size < SIZE_MAX - fixed ? malloc(fixed + (size_t)size + 1) : NULL;
    if (block == NULL) return NULL;
    b->frames = (g4_image *)(void *)block;
    b->seconds = (double *)(void *)(b->frames + n);
    b->sound = (g4_audio *)(void *)(b->seconds + n);
    b->samples = (float *)(void *)(b->sound + 1);
    b->pixels = (uint8_t *)(b->samples + h->n_samples);
    return block;
}

static void take_content(reader *r, message_part *p, const content_head *h, const frame_head *frames, uint64_t size)
{
    content_block b;
    medium *m = &p->medium;
    if (stopped(r)) return;
    m->own = content_open(&b, h, size);
    if (m->own == NULL) {
        r->failed = say(FAILED, "no memory for a medium of %llu bytes", (unsigned long long)size);
        return;
    }
    m->kind = p->kind;
    take(r, b.samples, (size_t)size);
    *b.sound = (g4_audio) { .samples = b.samples, .n_samples = (size_t)h->n_samples };
    for (uint32_t i = 0; i < h->n_frames; i++) {
        b.frames[i] = (g4_image) { .pixels = b.pixels,
                                   .width = (int)frames[i].width,
                                   .height = (int)frames[i].height,
                                   .max_tokens = p->budget,
                                   .fitted = (int)frames[i].fitted };
        b.seconds[i] = frames[i].seconds;
        b.pixels += pixel_bytes(&frames[i]);
    }
    if (p->kind == G4_PART_IMAGE) m->image = b.frames[0];
    if (p->kind == G4_PART_AUDIO) m->audio = *b.sound;
    if (p->kind == G4_PART_VIDEO) {
        m->video = (g4_video) { .frames = b.frames,
                                .seconds = b.seconds,
                                .n_frames = (int)h->n_frames,
                                .sound = h->has_sound ? b.sound : NULL };
    }
}

static void take_medium(reader *r, message_part *p)
{
    content_head h;
    uint64_t size = 0;
    h.n_frames = take_u32(r);
    h.has_sound = take_u32(r);
    h.n_samples = take_u64(r);
    if (h.n_frames > r->left / FRAME_BYTES || h.n_frames > INT_MAX) r->bad = 1;
    frame_head *frames = stopped(r) ? NULL : calloc((size_t)h.n_frames + 1, sizeof *frames);
    if (frames == NULL && !stopped(r)) r->failed = say(FAILED, "no memory for the frames of a video");
    for (uint32_t i = 0; i < h.n_frames && !stopped(r); i++) {
        frames[i].width = take_u32(r);
        frames[i].height = take_u32(r);
        frames[i].seconds = take_double(r);
        frames[i].fitted = r->version > UNSCALED_VERSION ? take_u32(r) : 0;
    }
    if (!stopped(r) && !content_is_whole(p->kind, &h, frames, r->left, &size)) r->bad = 1;
    take_content(r, p, &h, frames, size);
    free(frames);
}

static void take_part(reader *r, message_part **parts, int *n, const char *path)
{
    const uint32_t flags = take_u32(r), kind = flags & ~incomplete_bit, budget = take_u32(r);
    if (kind > G4_PART_TOOL_RESULT || budget > INT_MAX) r->bad = 1;
    message_part *p = stopped(r) ? NULL : part_add(parts, n, (g4_part_kind)kind);
    if (p == NULL) {
        r->failed = r->bad ? 0 : FAILED;
        return;
    }
    p->budget = (int)budget;
    take_string(r, &p->text);
    take_string(r, &p->name);
    take_string(r, &p->id);
    /* files of 0.1 hold calls that never got to their name, without the bit */
    p->incomplete = flags != kind || (kind == G4_PART_TOOL_CALL && p->name.len == 0);
    if (!part_is_medium(p) || stopped(r)) return;
    buffer_free(&p->text);
    if (r->version == OLD_VERSION) {
        r->failed = say(FAILED,
                        "%s was saved by version 0.1, which kept pictures and sounds by their names: it cannot "
                        "be gone on with",
                        path);
        return;
    }
    take_medium(r, p);
}

/* The caller tells of damage. */
static int take_message(reader *r, conversation *c, const char *path)
{
    message_part *parts = NULL;
    int n = 0;
    const uint32_t role = take_u32(r), n_parts = take_u32(r);
    if (role > G4_ROLE_TOOL || n_parts > r->left / PART_BYTES) r->bad = 1;
    for (uint32_t i = 0; i < n_parts && !stopped(r); i++) take_part(r, &parts, &n, path);
    if (!stopped(r)) return message_add(c, (g4_role)role, parts, n);
    parts_free(parts, n);
    return r->failed != 0 ? r->failed : FAILED;
}

static int check_head(reader *r, const conversation *c, const char *path)
{
    char magic[MAGIC_BYTES];
    struct stat st;
    if (fstat(fileno(r->f), &st) != 0) return say(FAILED, "cannot read %s: %s", path, strerror(errno));
    *r = (reader) { .f = r->f, .left = HEAD_BYTES };
    take(r, magic, sizeof magic);
    const uint64_t len = take_u64(r);
    const int version = magic[MAGIC_BYTES - 1] - '0';
    if (r->failed) return r->failed;
    if (r->bad || memcmp(magic, session_magic, MAGIC_BYTES - 1) != 0 || version < OLD_VERSION || version > 9) {
        return say(FAILED, "%s is not a session file", path);
    }
    if (version > VERSION) {
        return say(FAILED, "%s is a session of format %d, this program reads %d to %d", path, version, OLD_VERSION,
                   VERSION);
    }
    if (len > (uint64_t)st.st_size - HEAD_BYTES) return say(FAILED, "%s is truncated or damaged", path);
    if (len > 0 && c->raw) return say(FAILED, "%s holds a chat: go on without --raw", path);
    *r = (reader) { .f = r->f, .left = len, .sum = checksum_start, .version = version };
    return DONE;
}

static int take_messages(reader *r, conversation *c, const char *path)
{
    int status = DONE;
    while (status == DONE && r->left > 0) status = take_message(r, c, path);
    const uint64_t sum = r->sum;
    r->left = CHECKSUM_BYTES;
    if (status == DONE && r->version > OLD_VERSION && take_u64(r) != sum) r->bad = 1;
    if (r->failed) return r->failed;
    if (r->bad) return say(FAILED, feof(r->f) ? "%s is truncated" : "%s: its messages are damaged", path);
    return status;
}

static int on_read(void *user, void *data, size_t size) { return fread(data, 1, size, user) != size; }

/* What was said so far is replaced only when all of the file could be read. */
static int load_session(conversation *c, FILE *f, const char *path, const g4_session_options *setup)
{
    conversation loaded = { 0 }; /* its messages alone */
    reader r = { .f = f };
    g4_session *session = NULL;
    g4_error err;
    int status = check_head(&r, c, path);
    if (status == DONE) status = take_messages(&r, &loaded, path);
    if (status == DONE && g4_session_load(&session, c->engine, setup, on_read, f, &err) != G4_OK) {
        status = report_of(path, &err);
    }
    if (status == DONE && fgetc(f) != EOF) status = say(FAILED, "%s is damaged: it goes on behind its end", path);
    if (status == DONE && loaded.n == 0 && !c->raw && g4_session_n(session) > 0) { /* an empty chat holds neither */
        status = say(FAILED, "%s holds raw text: go on with --raw", path);
    }
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
    FILE *f = NULL;
    int status = path != NULL ? regular_open(&f, path) : DONE;
    c->progress.loader = &c->loader;
    if (status != DONE) return status;
    if (f == NULL) return g4_session_open(&c->session, c->engine, &setup, &err) == G4_OK ? DONE : report(&err);
    status = load_session(c, f, path, &setup);
    fclose(f);
    return status;
}
