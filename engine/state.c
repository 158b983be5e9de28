/* state.c - a session to bytes and back, to go on later with the same model.
 *
 * Little-endian: magic "G4STATE1", u32 version, u32 byte order mark, u64 fingerprint of the model, u32 kv type, u32 n,
 * u32 n_media, u32 n_caches; n token ids (i32); per medium: u32 pos, u32 placeholder id, u32 n, u32 0, u64 key[2],
 * then (n, hidden) f32; per cache: u32 first page, u32 end, then the pages, zeros behind the last of the n positions;
 * at the end u64 checksum of all before. The last token is evaluated again on loading.
 *
 * What is loaded is not trusted: numbers are checked before they are used, memory is taken as bytes come, and keys,
 * values and soft tokens may be any numbers. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "session.h"

#define G4_STATE_MAGIC "G4STATE1"
#define G4_STATE_VERSION 1u
#define G4_FINGERPRINT_BYTES 4096 /* of each tensor */

typedef struct {
    char magic[8];
    uint32_t version, endian;
    uint64_t fingerprint;
    uint32_t kv, n, n_media, n_caches;
} g4_state_header;
typedef struct {
    uint32_t pos, token, n, zero;
    uint64_t key[2];
} g4_state_medium;

typedef struct {
    g4_write_fn write;
    g4_read_fn read;
    void *user;
    uint64_t sum;
    uint64_t bytes;  /* written so far */
    int only_counts; /* nonzero: nothing is written */
    g4_error *err;
    g4_halt *halt;    /* of the call that saves or loads, or NULL */
    g4_status status; /* the first failure; later calls do nothing */
} g4_state_io;

static void g4_state_put(g4_state_io *io, const void *data, size_t n)
{
    io->bytes += n;
    if (io->only_counts) return;
    if (!io->status) io->status = g4_halt_check(io->halt, io->err);
    if (io->status) return;
    io->sum = g4_checksum_step(io->sum, g4_checksum(data, n));
    if (io->write(io->user, data, n)) io->status = g4_fail(io->err, G4_ERR_IO, "writing the session failed");
}

static void g4_state_get(g4_state_io *io, void *data, size_t n)
{
    if (!io->status) io->status = g4_halt_check(io->halt, io->err);
    if (io->status) return;
    if (io->read(io->user, data, n))
        io->status = g4_fail(io->err, G4_ERR_IO, "the saved session cannot be read, or is truncated");
    else
        io->sum = g4_checksum_step(io->sum, g4_checksum(data, n));
}

/* Tells models apart: configuration, tokenizer and table by their checksum, and the first bytes of every tensor. */
static g4_status g4_engine_fingerprint(g4_engine *e, uint64_t *out, g4_halt *halt, g4_error *err)
{
    g4_status status = g4_engine_enter(e, halt, err);
    if (status) return status;
    if (e->fingerprint == 0) {
        g4_file_header h;
        memcpy(&h, e->file.data, sizeof h);
        uint64_t sum = h.checksum;
        for (int i = 0; !status && i < e->file.n_tensors; i++) {
            const g4_tensor_entry *t = &e->file.table[i];
            const size_t n = t->size < G4_FINGERPRINT_BYTES ? (size_t)t->size : G4_FINGERPRINT_BYTES;
            sum = g4_checksum_step(sum, g4_checksum(e->file.data + t->offset, n));
            status = g4_halt_check(halt, err);
        }
        if (!status) e->fingerprint = sum | 1;
    }
    *out = e->fingerprint;
    g4_engine_unlock(e);
    return status;
}

/* ---- Saving --------------------------------------------------------------------------------------------- */

/* Behind the last position a page may hold what was rewound, or guessed: that is nobody's to read. */
static void g4_state_write_pages(g4_state_io *io, const g4_session *s, int cache)
{
    const g4_cache *c = &s->kv.caches[cache];
    const uint32_t range[2] = { (uint32_t)c->first, (uint32_t)c->end };
    g4_state_put(io, range, sizeof range);
    for (int p = c->first; p < c->end; p++) {
        if (p < s->n / G4_PAGE || io->only_counts) {
            g4_state_put(io, c->pages[p]->data, c->page_bytes);
            continue;
        }
        unsigned char *page = g4_alloc(s->e->a, 1, c->page_bytes);
        if (page) {
            g4_kv_copy_page(&s->kv, cache, p, g4_max_int(s->n - p * G4_PAGE, 0), page);
            g4_state_put(io, page, c->page_bytes);
        } else if (!io->status) {
            io->status = g4_fail(io->err, G4_ERR_MEMORY, "no memory for a page of %zu bytes", c->page_bytes);
        }
        g4_free(s->e->a, page);
    }
}

static void g4_state_write(g4_state_io *io, const g4_session *s, uint64_t fingerprint)
{
    const size_t hidden = s->e->file.config.hidden;
    const g4_state_header h = { .magic = G4_STATE_MAGIC,
                                .version = G4_STATE_VERSION,
                                .endian = G4_FILE_ENDIAN,
                                .fingerprint = fingerprint,
                                .kv = (uint32_t)s->kv.type,
                                .n = (uint32_t)s->n,
                                .n_media = (uint32_t)s->n_media,
                                .n_caches = (uint32_t)s->kv.n_caches };
    g4_state_put(io, &h, sizeof h);
    g4_state_put(io, s->tokens, (size_t)s->n * sizeof *s->tokens);
    for (int i = 0; i < s->n_media; i++) {
        const g4_soft *soft = s->media[i].soft;
        const g4_state_medium m = {
            (uint32_t)s->media[i].pos, (uint32_t)soft->token, (uint32_t)soft->n, 0, { soft->key[0], soft->key[1] }
        };
        g4_state_put(io, &m, sizeof m);
        g4_state_put(io, soft->rows, (size_t)soft->n * hidden * sizeof *soft->rows);
    }
    for (int i = 0; i < s->kv.n_caches; i++) g4_state_write_pages(io, s, i);
    const uint64_t sum = io->sum;
    g4_state_put(io, &sum, sizeof sum);
}

g4_status g4_session_save(const g4_session *s, g4_write_fn write, void *user, g4_error *err)
{
    g4_call call;
    if (!write) return g4_fail(err, G4_ERR_ARGUMENT, "write is NULL");
    g4_status status = g4_call_begin(&call, s, NULL, err);
    uint64_t fingerprint = 0;
    if (!status) status = g4_engine_fingerprint(s->e, &fingerprint, &call.halt, err);
    if (!status) {
        g4_state_io io = { .write = write, .user = user, .err = err, .halt = &call.halt };
        g4_state_write(&io, s, fingerprint);
        status = io.status;
    }
    return g4_call_end(&call, status);
}

uint64_t g4_session_saved_bytes(const g4_session *s)
{
    g4_state_io io = { .only_counts = 1 };
    if (s) g4_state_write(&io, s, 0);
    return io.bytes;
}

/* ---- Loading -------------------------------------------------------------------------------------------- */

static g4_status g4_state_check_header(const g4_state_header *h, g4_engine *e, g4_halt *halt, g4_error *err)
{
    uint64_t fingerprint;
    if (memcmp(h->magic, G4_STATE_MAGIC, sizeof h->magic) != 0 || h->endian != G4_FILE_ENDIAN)
        return g4_fail(err, G4_ERR_FORMAT, "not a saved session");
    if (h->version != G4_STATE_VERSION)
        return g4_fail(err, G4_ERR_VERSION, "saved session of version %u, this library reads version %u", h->version,
                       G4_STATE_VERSION);
    const g4_status status = g4_engine_fingerprint(e, &fingerprint, halt, err);
    if (status) return status;
    if (h->fingerprint != fingerprint || h->n_caches != (uint32_t)e->model.n_owners)
        return g4_fail(err, G4_ERR_MISMATCH, "this session was saved with another model");
    return G4_OK;
}

static g4_status g4_state_load_tokens(g4_session *s, g4_state_io *io, const g4_state_header *h)
{
    if (h->kv != (uint32_t)s->kv.type)
        return g4_fail(io->err, G4_ERR_MISMATCH, "this session was saved with another key/value type (%u, not %u)",
                       h->kv, (unsigned)s->kv.type);
    if (h->n > (uint32_t)s->n_ctx)
        return g4_fail(io->err, G4_ERR_CONTEXT, "the saved session has %u tokens, the context %d", h->n, s->n_ctx);
    if (h->n_media > h->n)
        return g4_fail(io->err, G4_ERR_FORMAT, "saved session: %u media in %u tokens", h->n_media, h->n);
    s->n = (int)h->n;
    g4_state_get(io, s->tokens, (size_t)s->n * sizeof *s->tokens);
    for (int i = 0; i < s->n && !io->status; i++)
        if ((uint32_t)s->tokens[i] >= s->e->file.config.n_vocab)
            return g4_fail(io->err, G4_ERR_FORMAT, "saved session: token %d is %d", i, (int)s->tokens[i]);
    return io->status;
}

static g4_status g4_state_load_media(g4_session *s, g4_state_io *io, uint32_t n)
{
    const g4_config *c = &s->e->file.config;
    uint32_t free_from = 0;
    s->media = g4_alloc(s->e->a, (size_t)n + 1, sizeof *s->media);
    if (!s->media) return g4_fail(io->err, G4_ERR_MEMORY, "no memory for %u media", n);
    s->cap_media = (int)n + 1;
    for (uint32_t i = 0; i < n && !io->status; i++) {
        g4_state_medium m = { 0 };
        g4_state_get(io, &m, sizeof m);
        if (io->status) break;
        if (m.pos < free_from || m.n < 1 || m.n > (uint32_t)s->n || m.pos > (uint32_t)s->n - m.n || m.zero != 0)
            return g4_fail(io->err, G4_ERR_FORMAT, "saved session: media %u at %u lies outside", i, m.pos);
        free_from = m.pos + m.n;
        for (uint32_t t = m.pos; t < free_from; t++)
            if ((uint32_t)s->tokens[t] != m.token)
                return g4_fail(io->err, G4_ERR_FORMAT,
                               "saved session: media %u: token %u is %d, not its placeholder %u", i, t,
                               (int)s->tokens[t], m.token);
        g4_soft *soft = g4_soft_new(s->e->a, (g4_token)m.token, m.key, (int)m.n, c->hidden);
        if (!soft) return g4_fail(io->err, G4_ERR_MEMORY, "no memory for media %u", i);
        s->media[s->n_media++] = (g4_medium) { (int)m.pos, soft };
        g4_state_get(io, soft->rows, (size_t)m.n * c->hidden * sizeof *soft->rows);
    }
    return io->status;
}

static g4_status g4_state_load_pages(g4_session *s, g4_state_io *io)
{
    const uint32_t end = (uint32_t)((s->n + G4_PAGE - 1) / G4_PAGE);
    for (int i = 0; i < s->kv.n_caches && !io->status; i++) {
        const g4_cache *c = &s->kv.caches[i];
        const int window = c->shape.window;
        uint32_t range[2] = { 0, 0 };
        g4_state_get(io, range, sizeof range);
        if (io->status) break;
        if (range[1] != end || range[0] > range[1] ||
            range[0] * G4_PAGE > (uint32_t)(window ? g4_window_start(s->n, window) : 0))
            return g4_fail(io->err, G4_ERR_FORMAT, "saved session: pages %u to %u of cache %d do not hold %d positions",
                           range[0], range[1], i, s->n);
        for (int p = (int)range[0]; p < (int)range[1] && !io->status; p++) {
            if (!g4_kv_hold(&s->kv, i, p)) return g4_fail(io->err, G4_ERR_MEMORY, "no memory for keys and values");
            g4_state_get(io, c->pages[p]->data, c->page_bytes);
        }
    }
    return io->status;
}

static g4_status g4_state_check_sum(g4_state_io *io)
{
    const uint64_t expected = io->sum;
    uint64_t sum = 0;
    g4_state_get(io, &sum, sizeof sum);
    if (!io->status && sum != expected)
        return g4_fail(io->err, G4_ERR_FORMAT, "the saved session is damaged (checksum)");
    return io->status;
}

/* The rest of the file, behind its header, into a new session. */
static g4_status g4_state_read(g4_session *s, g4_state_io *io, const g4_state_header *h)
{
    g4_call call;
    g4_status status = g4_call_begin(&call, s, NULL, io->err);
    io->halt = call.gate ? &call.halt : NULL;
    if (!status) status = g4_state_load_tokens(s, io, h);
    if (!status) status = g4_state_load_media(s, io, h->n_media);
    if (!status) status = g4_state_load_pages(s, io);
    if (!status) status = g4_state_check_sum(io);
    if (!status) status = g4_timeline_need_raw(s, io->err);
    return g4_call_end(&call, status);
}

g4_status g4_session_load(g4_session **out, g4_engine *e, const g4_session_options *opt, g4_read_fn read, void *user,
                          g4_error *err)
{
    if (!out || !read) return g4_fail(err, G4_ERR_ARGUMENT, "%s is NULL", out ? "read" : "out");
    *out = NULL;
    g4_halt halt;
    g4_halt_open(&halt);
    if (opt) g4_halt_add(&halt, &opt->limits);
    g4_state_io io = { .read = read, .user = user, .err = err, .halt = &halt };
    g4_state_header h;
    g4_session *s = NULL;
    g4_status status = g4_engine_check(e, err);
    if (status) return status;
    g4_state_get(&io, &h, sizeof h);
    status = io.status;
    if (!status) status = g4_state_check_header(&h, e, &halt, err);
    if (!status) status = g4_session_open(&s, e, opt, err);
    if (!status) status = g4_state_read(s, &io, &h);
    if (status)
        g4_session_close(s);
    else
        *out = s;
    return status;
}
