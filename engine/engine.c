/* engine.c - opening a model: file, weights, kernel table, threads, buffers; what it tells about itself; and the public
 * calls that need no more than an open engine. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "session.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* ---- Access ------------------------------------------------------------------------------------------------ */

#define G4_LOCK_LOOK 10000000L /* nanoseconds after which a waiter looks whether it was halted */

static int g4_lock_open(g4_lock *l)
{
    if (pthread_mutex_init(&l->guard, NULL) != 0) return 0;
    if (pthread_cond_init(&l->freed, NULL) == 0) return 1;
    pthread_mutex_destroy(&l->guard);
    return 0;
}

/* Wait for a while, or until the lock is freed. */
static void g4_lock_wait(g4_lock *l, const g4_halt *halt)
{
    if (!halt) {
        pthread_cond_wait(&l->freed, &l->guard);
        return;
    }
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += G4_LOCK_LOOK;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&l->freed, &l->guard, &until);
}

g4_status g4_engine_enter(const g4_engine *e, g4_halt *halt, g4_error *err)
{
    g4_lock *l = e->lock;
    g4_status status = G4_OK;
    pthread_mutex_lock(&l->guard);
    if (l->taken && pthread_equal(l->owner, pthread_self()))
        status = g4_fail(err, G4_ERR_ARGUMENT, "this engine is inside a forward pass: a tap must not compute with it");
    while (!status && l->taken) {
        status = g4_halt_check(halt, err);
        if (!status) g4_lock_wait(l, halt);
    }
    if (!status) {
        l->taken = 1;
        l->owner = pthread_self();
    }
    pthread_mutex_unlock(&l->guard);
    if (!status) g4_pool_halt(e->compute.pool, halt);
    return status;
}

void g4_engine_unlock(const g4_engine *e)
{
    g4_pool_halt(e->compute.pool, NULL);
    pthread_mutex_lock(&e->lock->guard);
    e->lock->taken = 0;
    pthread_cond_signal(&e->lock->freed);
    pthread_mutex_unlock(&e->lock->guard);
}

g4_status g4_engine_leave(const g4_engine *e, g4_halt *halt, g4_error *err)
{
    g4_engine_unlock(e);
    return g4_halt_check(halt, err);
}

g4_status g4_engine_check(const g4_engine *e, g4_error *err)
{
    if (!e) return g4_fail(err, G4_ERR_ARGUMENT, "engine is NULL");
    if (g4_pool_is_ours(e->compute.pool)) return G4_OK;
    return g4_fail(err, G4_ERR_ARGUMENT, "this engine was opened before fork(): its threads are not in this process");
}

g4_halt *g4_engine_halt(const g4_engine *e, g4_halt *halt)
{
    if (!e) return NULL;
    g4_halt_open(halt);
    g4_halt_add(halt, &e->limits);
    return halt;
}

const g4_allocator *g4_engine_allocator(const g4_engine *e) { return e->a; }
const g4_tokenizer *g4_engine_tokenizer(const g4_engine *e) { return &e->tokenizer; }
const g4_config *g4_engine_config(const g4_engine *e) { return &e->file.config; }

void g4_engine_log(const g4_engine *e, g4_log_level level, const char *fmt, ...)
{
    if (!e->log) return;
    char line[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    e->log(e->log_user, level, line);
}

/* ---- Opening and closing ------------------------------------------------------------------------------------ */

static g4_status g4_choose_kernels(g4_engine *e, const char *isa, g4_error *err)
{
    const g4_kernels *k;
    for (int i = 0; (k = g4_usable_table(i)) != NULL; i++) {
        if (isa && strcmp(isa, k->isa) != 0) continue;
        e->compute.kernels = k;
        return G4_OK;
    }
    g4_buf names = { .a = e->a };
    for (int i = 0; (k = g4_usable_table(i)) != NULL; i++) g4_buf_fmt(&names, " %s", k->isa);
    const g4_status status = g4_fail(err, G4_ERR_ARGUMENT, "isa %.32s is not one this CPU and build have:%.120s", isa,
                                     names.data ? names.data : "");
    g4_buf_free(&names);
    return status;
}

static int g4_all_f32(const g4_file *f)
{
    for (int i = 0; i < f->n_tensors; i++)
        if (f->table[i].layout == G4_LAYOUT_GROUPS16 && f->table[i].type != G4_TYPE_F32) return 0;
    return 1;
}

/* Does any multiplied matrix read integers? */
static int g4_reads_ints(const g4_file *f)
{
    for (int i = 0; i < f->n_tensors; i++)
        if (f->table[i].layout == G4_LAYOUT_GROUPS16 && g4_type_get(f->table[i].type)->reads == G4_READS_INT8) return 1;
    return 0;
}

static g4_status g4_bind_weights(g4_engine *e, const g4_engine_options *opt, g4_halt *halt, g4_error *err)
{
    g4_binder b = { .file = &e->file, .static_acts = opt->static_activations, .halt = halt, .err = err };
    g4_model_bind(&e->model, &b, &e->compute, e->a);
    g4_vision_bind(&e->vision, &b, &e->compute, e->a);
    g4_hearing_bind(&e->hearing, &b, &e->compute, e->a);
    g4_bind_end(&b);
    return b.status;
}

static g4_status g4_open_buffers(g4_engine *e, int static_acts, g4_error *err)
{
    g4_status status = g4_model_open(&e->model, err);
    if (status) return status;
    e->compute.room_floats = g4_model_room_floats(&e->model);
    e->compute.room = g4_blocks_add(&e->blocks, (size_t)g4_pool_size(e->compute.pool), e->compute.room_floats,
                                    sizeof *e->compute.room);
    for (int i = 0; i < G4_PARTS && static_acts; i++)
        e->compute.parts[i] =
            g4_acts_open(&e->blocks, (size_t)g4_model_max_rows(&e->model), g4_model_max_cols(&e->model), 1);
    e->rows = g4_blocks_add(&e->blocks, (size_t)g4_model_max_rows(&e->model), 1, sizeof *e->rows);
    e->work_bytes = e->model.pass_bytes + e->blocks.bytes;
    return e->blocks.failed
               ? g4_fail(err, G4_ERR_MEMORY, "no memory for work buffers of %.1f MB", (double)e->work_bytes / 1e6)
               : G4_OK;
}

/* Where the weights are to lie. Errors name the file. */
static g4_status g4_place_weights(g4_engine *e, const g4_engine_options *opt, g4_halt *halt, g4_error *err)
{
    g4_error inner = { G4_OK, "" };
    g4_status status = g4_halt_check(halt, &inner);
    if (!status) status = g4_file_read_weights(&e->file, opt->huge_pages, halt, &inner);
    if (!status && opt->huge_pages) status = g4_file_use_huge_pages(&e->file, halt, &inner);
    g4_file_leave(&e->file);
    if (!status && opt->lock_memory) status = g4_file_lock(&e->file, halt, &inner);
    if (!status) return G4_OK;
    return g4_fail(err, status, "%.100s: %.150s", opt->model_path ? opt->model_path : "model_data", inner.message);
}

static g4_status g4_engine_build(g4_engine *e, const g4_engine_options *opt, g4_error *err)
{
    if (opt->n_threads < 0 || opt->n_threads > G4_MAX_THREADS)
        return g4_fail(err, G4_ERR_ARGUMENT, "%d threads: 1 to %d, or 0 for one per core", opt->n_threads,
                       G4_MAX_THREADS);
    g4_halt halt;
    g4_status status = g4_file_open(&e->file, opt, e->a, g4_engine_halt(e, &halt), err);
    if (!status)
        status = g4_choose_kernels(e, opt->isa, err); /* asks the CPU, which a virtual machine answers slowly */
    if (status) return status;
    g4_file_advise(&e->file); /* before the first look at a weight */
    status = g4_place_weights(e, opt, &halt, err);
    if (status) return status;
    const int has_model = e->file.config.n_layers > 0; /* else the file holds a tokenizer only */
    status = g4_tokenizer_bind(&e->tokenizer, e->file.tokenizer, e->file.tokenizer_size, e->file.config.n_vocab, err);
    e->vocabulary.a = e->a;
    e->tokenizer.home = &e->vocabulary;
    if (!status && has_model) status = g4_bind_weights(e, opt, &halt, err);
    if (status) return status;
    e->compute.file = &e->file;
    e->compute.reads_ints = g4_reads_ints(&e->file);
    e->is_f32 = g4_all_f32(&e->file);
    const int n_threads = opt->n_threads ? opt->n_threads : g4_default_threads();
    e->compute.pool = g4_pool_open(e->a, n_threads);
    if (!e->compute.pool) return g4_fail(err, G4_ERR_MEMORY, "cannot start %d threads", n_threads);
    return has_model ? g4_open_buffers(e, opt->static_activations, err) : G4_OK;
}

g4_status g4_engine_open(g4_engine **out, const g4_engine_options *opt, g4_error *err)
{
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    static const g4_engine_options none = { 0 };
    if (!opt) opt = &none;
    g4_engine *e = g4_alloc(opt->allocator, 1, sizeof *e);
    if (!e) return g4_fail(err, G4_ERR_MEMORY, "no memory for an engine");
    if (opt->allocator) e->allocator = *opt->allocator;
    e->a = e->allocator.alloc_fn ? &e->allocator : NULL;
    e->blocks.a = e->a;
    e->log = opt->log;
    e->log_user = opt->user;
    e->lock = &e->own_lock;
    e->limits = opt->limits;
    if (opt->taps) e->taps = *opt->taps;
    e->lock_ready = g4_lock_open(&e->own_lock);
    const g4_status status =
        e->lock_ready ? g4_engine_build(e, opt, err) : g4_fail(err, G4_ERR_MEMORY, "no lock for an engine");
    if (status)
        g4_engine_close(e);
    else
        *out = e;
    return status;
}

void g4_engine_close(g4_engine *e)
{
    if (!e) return;
    const int is_ours = !e->compute.pool || g4_pool_is_ours(e->compute.pool);
    g4_pool_close(e->compute.pool);
    g4_model_close(&e->model);
    g4_vision_close(e->vision);
    g4_hearing_close(e->hearing);
    g4_soft_cache_close(&e->softs);
    g4_vocabulary_home_close(&e->vocabulary);
    g4_blocks_free(&e->blocks);
    g4_file_unlock(&e->file);
    g4_file_close(&e->file, e->a);
    if (e->lock_ready && is_ours) {
        pthread_cond_destroy(&e->own_lock.freed);
        pthread_mutex_destroy(&e->own_lock.guard);
    }
    const g4_allocator a = e->allocator;
    g4_free(a.alloc_fn ? &a : NULL, e);
}

/* ---- What it tells about itself ------------------------------------------------------------------------------- */

static uint64_t g4_products(const g4_matrix *m) { return (uint64_t)m->rows * (uint64_t)m->cols; }

/* Multiply-adds with the weights of one layer for one token; absent matrices have no rows. */
static uint64_t g4_layer_products(const g4_config *c, const g4_layer *w)
{
    const g4_matrix *const all[] = { &w->q,    &w->k,        &w->v,        &w->o,     &w->gate_up,
                                     &w->down, &w->ple_gate, &w->ple_proj, &w->router };
    uint64_t n = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) n += g4_products(all[i]);
    return n + c->n_experts_used * (g4_products(&w->experts_gate_up.first) + g4_products(&w->experts_down.first));
}

/* Behind the last layer with keys and values of its own only the last token of a prompt goes on, and of that layer the
 * others need but those keys and values (gemma4.c, section 8). */
static void g4_count_products(const g4_model *m, g4_engine_info *out)
{
    const g4_config *c = m->config;
    for (int l = 0; l < (int)c->n_layers; l++) {
        const g4_layer *w = &m->layers[l];
        const uint64_t n = g4_layer_products(c, w);
        out->decode_products += n;
        if (l < m->last_owner) out->prompt_products += n;
        if (l == m->last_owner) out->prompt_products += g4_products(&w->k) + g4_products(&w->v);
    }
    out->decode_products += g4_products(&m->head) + g4_products(&m->ple_proj);
    out->prompt_products += (uint64_t)m->last_owner * c->ple_dim * c->hidden;
}

static void g4_count_bytes(const g4_file *f, g4_engine_info *out)
{
    const g4_config *c = &f->config;
    for (int i = 0; i < f->n_tensors; i++) {
        const g4_tensor_entry *t = &f->table[i];
        out->n_params += t->dims[0] * t->dims[1] * t->dims[2];
        if (t->layout == G4_LAYOUT_ROWS)
            out->lookup_bytes += t->size;
        else if (t->n_dims == 3 && c->n_experts)
            out->decode_bytes += t->size / c->n_experts * c->n_experts_used;
        else if (g4_is_decoder_weight(t))
            out->decode_bytes += t->size;
    }
}

void g4_engine_get_info(const g4_engine *e, g4_engine_info *out)
{
    if (!out) return;
    *out = (g4_engine_info) { 0 };
    if (!e) return;
    const g4_config *c = &e->file.config;
    *out = (g4_engine_info) { .name = c->name,
                              .isa = e->compute.kernels->isa,
                              .n_layers = (int)c->n_layers,
                              .hidden = (int)c->hidden,
                              .n_vocab = (int)c->n_vocab,
                              .n_threads = g4_pool_size(e->compute.pool),
                              .max_ctx = (int)c->max_ctx,
                              .is_chat = (c->flags & G4_CONFIG_CHAT) != 0,
                              .has_image = c->v_layers > 0,
                              .has_audio = c->a_layers > 0,
                              .file_bytes = e->file.size,
                              .bos = (g4_token)c->bos,
                              .eos = (g4_token)c->eos,
                              .pad = (g4_token)c->pad,
                              .n_heads = (int)c->n_heads,
                              .window = (int)c->window,
                              .ple_dim = (int)c->ple_dim,
                              .n_experts = (int)c->n_experts,
                              .n_experts_used = (int)c->n_experts_used,
                              .expert_dim = (int)c->expert_dim,
                              .has_own_head = !(c->flags & G4_CONFIG_TIED),
                              .softcap = c->softcap,
                              .vision_layers = (int)c->v_layers,
                              .vision_hidden = (int)c->v_hidden,
                              .vision_tokens = (int)c->v_default_tokens,
                              .vision_side = (int)(c->v_patch * c->v_pool),
                              .audio_layers = (int)c->a_layers,
                              .audio_hidden = (int)c->a_hidden,
                              .source = c->source,
                              .source_sha256 = c->source_sha256 };
    g4_count_bytes(&e->file, out);
    if (c->n_layers > 0) g4_count_products(&e->model, out);
}

int g4_engine_get_tensor(const g4_engine *e, int i, g4_tensor_info *out)
{
    static const char *const layouts[] = { "plain", "rows", "groups16" };
    if (!e || !out || i < 0 || i >= e->file.n_tensors) return 0;
    const g4_tensor_entry *t = &e->file.table[i];
    *out = (g4_tensor_info) { .name = t->name,
                              .type = g4_type_name(t->type),
                              .layout = layouts[t->layout],
                              .n_dims = (int)t->n_dims,
                              .dims = { t->dims[0], t->dims[1], t->dims[2] },
                              .bytes = t->size };
    return 1;
}

const char *g4_isa_name(int i)
{
    const g4_kernels *k = i < 0 ? NULL : g4_usable_table(i);
    return k ? k->isa : NULL;
}

void g4_sampling_recommended(const g4_engine *e, g4_sampling *out)
{
    if (!out) return;
    *out = (g4_sampling) { 0 };
    if (!e) return;
    const g4_config *c = &e->file.config;
    *out = (g4_sampling) { .temperature = c->temperature, .top_k = (int)c->top_k, .top_p = c->top_p };
}

/* ---- Weights in memory ------------------------------------------------------------------------------------------ */

#define G4_PREFAULT_STEP ((size_t)1 << 20)    /* bytes between looks at whether the call was cancelled ... */
#define G4_PREFAULT_TELL ((uint64_t)16 << 20) /* ... and between calls of the caller's function */

void g4_engine_residence(const g4_engine *e, uint64_t *resident, uint64_t *total)
{
    uint64_t unread[2];
    if (!resident) resident = &unread[0];
    if (!total) total = &unread[1];
    *resident = *total = 0;
    for (int i = 0; e && i < e->file.n_tensors; i++) {
        const g4_tensor_entry *t = &e->file.table[i];
        if (!g4_is_decoder_weight(t)) continue;
        *total += t->size;
        *resident += g4_resident_bytes(&e->file, t);
    }
}

g4_status g4_engine_prefault(const g4_engine *e, g4_progress_fn progress, void *user, g4_error *err)
{
    uint64_t total, done = 0, told = 0;
    g4_halt halt;
    g4_status status = g4_engine_check(e, err);
    if (status) return status;
    g4_engine_halt(e, &halt);
    g4_engine_residence(e, NULL, &total);
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < e->file.n_tensors; i++) {
        const g4_tensor_entry *t = &e->file.table[i];
        for (size_t step = 0; g4_is_decoder_weight(t) && step < t->size; step += G4_PREFAULT_STEP) {
            const size_t n = t->size - step < G4_PREFAULT_STEP ? (size_t)t->size - step : G4_PREFAULT_STEP;
            const volatile uint8_t *p = e->file.data + t->offset + step;
            for (size_t k = 0; k < n; k += page) (void)p[k];
            done += n;
            status = g4_halt_check(&halt, err);
            if (status) return status;
            if (done - told < G4_PREFAULT_TELL && step + n < t->size) continue;
            told = done;
            if (progress && progress(user, done, total)) return g4_fail(err, G4_ERR_CANCELED, "canceled");
        }
    }
    return G4_OK;
}

/* ---- Tokens --------------------------------------------------------------------------------------------------- */

g4_status g4_tokenize(const g4_engine *e, const char *text, size_t len, int specials, g4_token *out, size_t cap,
                      size_t *n, g4_error *err)
{
    g4_tokens ids = { NULL, 0, 0 };
    if (!e || !n || (!text && len > 0) || (!out && cap > 0))
        return g4_fail(err, G4_ERR_ARGUMENT, "%s is NULL", !e ? "engine" : !n ? "n" : out || cap == 0 ? "text" : "out");
    *n = 0;
    g4_halt halt;
    g4_halt_open(&halt);
    g4_halt_add(&halt, &e->limits);
    g4_status status = g4_tokenizer_encode(&e->tokenizer, e->a, text, len, specials, &ids, &halt, err);
    if (!status) {
        const size_t fits = ids.n < cap ? ids.n : cap;
        if (g4_copy(out, ids.ids, fits * sizeof *out, &halt))
            *n = ids.n;
        else
            status = g4_halt_check(&halt, err);
    }
    g4_free(e->a, ids.ids);
    return status;
}

size_t g4_token_bytes(const g4_engine *e, g4_token id, int skip_special, char *out)
{
    int special = 0;
    if (!e || !out || id < 0 || (uint32_t)id >= e->file.config.n_vocab) return 0;
    const size_t n = g4_tokenizer_piece(&e->tokenizer, id, out, &special);
    return special && skip_special ? 0 : n;
}

g4_token_kind g4_token_get_kind(const g4_engine *e, g4_token id)
{
    if (!e || id < 0 || (uint32_t)id >= e->file.config.n_vocab) return G4_TOKEN_UNUSED;
    const g4_config *c = &e->file.config;
    const uint32_t media[] = { c->image_token, c->audio_token, c->video_token }; /* 0: there is none */
    for (int i = 0; i < 3; i++)
        if (id > 0 && (uint32_t)id == media[i]) return G4_TOKEN_MEDIA;
    return g4_tokenizer_kind(&e->tokenizer, id);
}

int g4_token_is_stop(const g4_engine *e, g4_token id)
{
    const g4_config *c = e ? &e->file.config : NULL;
    for (uint32_t i = 0; c && i < c->n_stop; i++)
        if ((uint32_t)id == c->stop[i]) return 1;
    return 0;
}
