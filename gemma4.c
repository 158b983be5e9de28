/* gemma4.c - the engine: from the model file on disk to the next token, in the order in which it happens.
 *
 *    1  Memory, errors, checked arithmetic        10  Text decoder
 *    2  Model file                                11  Vision tower
 *    3  Configuration and weights                 12  Audio tower
 *    4  Scalar kernels                            13  Sampling
 *    5  Threads                                   14  Sessions
 *    6  Kernel tables and CPU choice              15  Saved state
 *    7  Keys and values                           16  Generation
 *    8  Attention                                 17  Engine
 *    9  Feed-forward, experts, per-layer inputs
 *
 * It reads files that export.py wrote and nothing else, and it is meant to fail in two places only: when a model file
 * is opened (everything in it is checked there, so that inner loops check nothing) and when a session needs memory
 * (before a chunk starts). */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "engine/session.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

/* ---- 2. Model file -----------------------------------------------------------------------------
 *
 * In: a path or bytes. Out: a g4_file whose header, configuration, tokenizer and table have been checked against the
 * file's size and against each other. The format is described field by field in parts.h. */

_Static_assert(sizeof(g4_file_header) == 128, "the header is 128 bytes on disk");
_Static_assert(sizeof(g4_tensor_entry) == 128, "a table entry is 128 bytes on disk");
_Static_assert(sizeof(g4_layer_config) == 32, "a layer record is 32 bytes on disk");

#define G4_CHECKSUM_START 48 /* the checksum covers everything after itself up to the tensor data */
#define G4_MAX_LAYERS 512 /* sanity bounds, far above any family member: they keep products of sizes within 64 bits */
#define G4_MAX_DIM (1u << 24)
#define G4_MAX_PLE_DIM 1024
#define G4_MAX_AUDIO_CONTEXT 64
#define G4_ATTEND_GROUP 64 /* queries (tokens x heads of a group) that read one key/value head together */

typedef struct {
    const uint8_t *data;
    size_t size;
    int mapped; /* munmap at close */
    g4_config config;
    g4_layer_config *layers;      /* (n_layers) */
    const g4_tensor_entry *table; /* (n_tensors), in the file */
    uint8_t *bound;               /* (n_tensors): a weight has taken this tensor */
    int n_tensors;
    const uint8_t *tokenizer;
    size_t tokenizer_size;
} g4_file;

static uint64_t g4_checksum_step(uint64_t h, uint64_t word)
{
    h = (h ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    return h << 29 | h >> 35;
}

uint64_t g4_checksum(const void *data, size_t n)
{
    const uint8_t *p = data;
    uint64_t lane[4] = { 1, 2, 3, 4 };
    uint64_t word[4];
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        memcpy(word, p + i, 32);
        for (int j = 0; j < 4; j++) lane[j] = g4_checksum_step(lane[j], word[j]);
    }
    if (i < n) {
        memset(word, 0, sizeof word);
        memcpy(word, p + i, n - i);
        for (int j = 0; j < 4; j++) lane[j] = g4_checksum_step(lane[j], word[j]);
    }
    uint64_t h = lane[0];
    for (int j = 1; j < 4; j++) h = g4_checksum_step(h, lane[j]);
    return h ^ (uint64_t)n;
}

/* Is [offset, offset + size) inside a file of n bytes? */
static int g4_inside(uint64_t offset, uint64_t size, uint64_t n) { return size <= n && offset <= n - size; }

/* The bytes a tensor of this entry must have. Dimensions have been bounded before, so nothing overflows. */
static uint64_t g4_entry_bytes(const g4_tensor_entry *t)
{
    if (t->layout == G4_LAYOUT_PLAIN) return 4 * t->dims[0] * t->dims[1] * t->dims[2];
    const uint64_t rows = t->dims[t->n_dims - 2], row = g4_row_bytes(t->type, t->dims[t->n_dims - 1]);
    if (t->layout == G4_LAYOUT_ROWS) return rows * row;
    const uint64_t matrix = (rows + 15) / 16 * 16 * row;
    return t->n_dims == 3 ? t->dims[0] * ((matrix + 4095) / 4096 * 4096) : matrix;
}

static g4_status g4_file_check_entry(const g4_file *f, const g4_file_header *h, int i, uint64_t *end, g4_error *err)
{
    const g4_tensor_entry *t = &f->table[i];
    if (!memchr(t->name, 0, sizeof t->name) || t->name[0] == 0)
        return g4_fail(err, G4_ERR_FORMAT, "tensor %d has no proper name", i);
    const g4_type_info *type = g4_type_get(t->type);
    if (!type || t->layout > G4_LAYOUT_GROUPS16 || t->scale_type > G4_SCALE_BF16)
        return g4_fail(err, G4_ERR_FORMAT, "tensor %s: unknown type %u, layout %u or scale type %u", t->name, t->type,
                       t->layout, t->scale_type);
    if (type->has_scales != (t->scale_type != G4_SCALE_NONE) || (t->layout == G4_LAYOUT_PLAIN && !type->is_float32))
        return g4_fail(err, G4_ERR_FORMAT, "tensor %s: type %s does not go with its layout or scales", t->name,
                       type->name);
    const uint32_t least = t->layout == G4_LAYOUT_PLAIN ? 1 : 2;
    if (t->n_dims < least || t->n_dims > 3)
        return g4_fail(err, G4_ERR_FORMAT, "tensor %s: %u dimensions", t->name, t->n_dims);
    uint64_t elements = 1;
    for (uint32_t d = 0; d < 3; d++) {
        if (t->dims[d] < 1 || t->dims[d] > G4_MAX_DIM || (d >= t->n_dims && t->dims[d] != 1))
            return g4_fail(err, G4_ERR_FORMAT, "tensor %s: dimension %u is %llu", t->name, d,
                           (unsigned long long)t->dims[d]);
        elements *= t->dims[d];
        if (elements > UINT64_C(1) << 40) return g4_fail(err, G4_ERR_FORMAT, "tensor %s: too many elements", t->name);
    }
    const uint64_t bytes = g4_entry_bytes(t);
    if (t->size != bytes)
        return g4_fail(err, G4_ERR_FORMAT, "tensor %s: %llu bytes expected, %llu given", t->name,
                       (unsigned long long)bytes, (unsigned long long)t->size);
    if (t->offset % G4_ALIGN != 0 || t->offset < *end || !g4_inside(t->offset, t->size, h->file_size))
        return g4_fail(err, G4_ERR_FORMAT, "tensor %s: offset %llu is not free, aligned and inside the file", t->name,
                       (unsigned long long)t->offset);
    *end = t->offset + t->size;
    return G4_OK;
}

static g4_status g4_file_check_config(g4_file *f, const g4_allocator *a, const g4_file_header *h, g4_error *err)
{
    const uint8_t *p = f->data + h->config_offset;
    uint32_t sizes[2];
    if (h->config_size < sizeof sizes)
        return g4_fail(err, G4_ERR_FORMAT, "configuration of %llu bytes", (unsigned long long)h->config_size);
    memcpy(sizes, p, sizeof sizes);
    g4_config *c = &f->config;
    memset(c, 0, sizeof *c);
    const size_t fixed = sizes[0] < sizeof *c ? sizes[0] : sizeof *c;
    if (sizes[0] < offsetof(g4_config, hidden) || sizes[0] > h->config_size || sizes[1] < 20 || sizes[1] > 4096)
        return g4_fail(err, G4_ERR_FORMAT, "configuration records of %u and %u bytes in %llu", sizes[0], sizes[1],
                       (unsigned long long)h->config_size);
    memcpy(c, p, fixed);
    c->name[sizeof c->name - 1] = 0;
    if (c->n_layers > G4_MAX_LAYERS || (uint64_t)c->n_layers * sizes[1] != h->config_size - sizes[0])
        return g4_fail(err, G4_ERR_FORMAT, "configuration of %llu bytes does not hold %u layers",
                       (unsigned long long)h->config_size, c->n_layers);
    f->layers = g4_alloc(a, (size_t)c->n_layers + 1, sizeof *f->layers);
    if (!f->layers) return g4_fail(err, G4_ERR_MEMORY, "no memory for the configuration");
    const size_t layer = sizes[1] < sizeof *f->layers ? sizes[1] : sizeof *f->layers;
    for (uint32_t l = 0; l < c->n_layers; l++) memcpy(&f->layers[l], p + sizes[0] + (size_t)l * sizes[1], layer);

    struct {
        const char *name;
        uint32_t value, low, high;
    } const ranges[] = {
        { "n_vocab", c->n_vocab, 1, 1u << 22 },
        { "bos", c->bos, 0, c->n_vocab - 1 },
        { "eos", c->eos, 0, c->n_vocab - 1 },
        { "pad", c->pad, 0, c->n_vocab - 1 },
        { "n_stop", c->n_stop, 0, 7 },
        { "chat_template", c->chat_template, 0, G4_TEMPLATE_31B_2026_04 },
        { "hidden", c->hidden, c->n_layers > 0, 1u << 16 },
        { "n_heads", c->n_heads, c->n_layers > 0, 1024 },
        { "window", c->window, c->n_layers > 0, 1u << 24 },
        { "max_ctx", c->max_ctx, c->n_layers > 0, 1u << 24 },
        { "ple_dim", c->ple_dim, 0, G4_MAX_PLE_DIM },
        { "n_experts", c->n_experts, 0, 1024 },
        { "n_experts_used", c->n_experts_used, c->n_experts > 0, c->n_experts },
        { "expert_dim", c->expert_dim, c->n_experts > 0, 1u << 17 },
        { "image_token", c->image_token, 0, c->n_vocab - 1 },
        { "audio_token", c->audio_token, 0, c->n_vocab - 1 },
        { "video_token", c->video_token, 0, c->n_vocab - 1 },
        { "v_layers", c->v_layers, 0, c->n_layers > 0 ? G4_MAX_LAYERS : 0 },
        { "v_hidden", c->v_hidden, c->v_layers > 0, 1u << 14 },
        { "v_heads", c->v_heads, c->v_layers > 0, 256 },
        { "v_head_dim / 4", c->v_head_dim / 4, c->v_layers > 0, 256 },
        { "v_head_dim % 4", c->v_head_dim % 4, 0, 0 },
        { "v_mlp", c->v_mlp, c->v_layers > 0, 1u << 16 },
        { "v_patch", c->v_patch, c->v_layers > 0, 64 },
        { "v_pool", c->v_pool, c->v_layers > 0, 16 },
        { "v_n_pos", c->v_n_pos, c->v_layers > 0, 1u << 16 },
        { "a_layers", c->a_layers, 0, c->n_layers > 0 ? G4_MAX_LAYERS : 0 },
        { "a_hidden", c->a_hidden, c->a_layers > 0, 1u << 14 },
        { "a_heads", c->a_heads, c->a_layers > 0, c->a_hidden },
        { "a_conv0", c->a_conv0, c->a_layers > 0, 1024 },
        { "a_conv1", c->a_conv1, c->a_layers > 0, 1024 },
        { "a_kernel", c->a_kernel, c->a_layers > 0, 64 },
        { "a_context", c->a_context, c->a_layers > 0, G4_MAX_AUDIO_CONTEXT },
        { "a_out", c->a_out, c->a_layers > 0, 1u << 16 },
        { "a_hidden % a_heads", c->a_heads > 0 ? c->a_hidden % c->a_heads : 0, 0, 0 },
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (ranges[i].value < ranges[i].low || ranges[i].value > ranges[i].high)
            return g4_fail(err, G4_ERR_FORMAT, "configuration: %s is %u, expected %u to %u", ranges[i].name,
                           ranges[i].value, ranges[i].low, ranges[i].high);
    const float floats[] = { c->eps,   c->attn_scale,   c->softcap, c->embed_scale,       c->temperature, c->top_p,
                             c->v_eps, c->v_rope_theta, c->a_eps,   c->a_residual_weight, c->a_logit_cap, c->a_clip };
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        if (!isfinite(floats[i]) || floats[i] < 0)
            return g4_fail(err, G4_ERR_FORMAT, "configuration: a scale is %g", (double)floats[i]);
    for (uint32_t l = 0; l < c->n_layers; l++) {
        const g4_layer_config *lc = &f->layers[l];
        const g4_layer_config *source = lc->kv_source <= l ? &f->layers[lc->kv_source] : NULL;
        if (lc->n_kv_heads < 1 || lc->n_kv_heads > c->n_heads || c->n_heads % lc->n_kv_heads != 0 || lc->head_dim < 2 ||
            lc->head_dim > G4_MAX_HEAD_DIM || lc->head_dim % 2 != 0 || lc->mlp_dim < 1 || lc->mlp_dim > 1u << 18 ||
            c->n_heads / lc->n_kv_heads > G4_ATTEND_GROUP)
            return g4_fail(err, G4_ERR_FORMAT, "configuration of layer %u: %u kv heads of %u, mlp of %u", l,
                           lc->n_kv_heads, lc->head_dim, lc->mlp_dim);
        if (!source || source->kv_source != lc->kv_source || source->head_dim != lc->head_dim ||
            source->n_kv_heads != lc->n_kv_heads || (source->flags & G4_LAYER_FULL) != (lc->flags & G4_LAYER_FULL))
            return g4_fail(err, G4_ERR_FORMAT, "configuration of layer %u: cannot read the keys of layer %u", l,
                           lc->kv_source);
        if ((lc->flags & G4_LAYER_MOE) && c->n_experts == 0)
            return g4_fail(err, G4_ERR_FORMAT, "layer %u has no experts to choose from", l);
    }
    return G4_OK;
}

static g4_status g4_file_check(g4_file *f, const g4_allocator *a, g4_error *err)
{
    g4_file_header h;
    if (f->size < sizeof h) {
        if (f->size == 0) return g4_fail(err, G4_ERR_FORMAT, "the file is empty");
        return g4_fail(err, G4_ERR_FORMAT, "not a model file: %zu bytes, the header alone has %zu", f->size, sizeof h);
    }
    memcpy(&h, f->data, sizeof h);
    if (memcmp(h.magic, "GGUF", 4) == 0)
        return g4_fail(err, G4_ERR_FORMAT, "this is a GGUF file: convert it with export.py");
    if (memcmp(h.magic, G4_FILE_MAGIC, sizeof h.magic) != 0)
        return g4_fail(err, G4_ERR_FORMAT, "not a gemma4.c model file (wrong magic)");
    if (h.endian != G4_FILE_ENDIAN)
        return g4_fail(err, G4_ERR_FORMAT, "byte order mark is %08x, expected %08x: another endianness, or damaged",
                       h.endian, G4_FILE_ENDIAN);
    if (h.version != G4_FILE_VERSION)
        return g4_fail(err, G4_ERR_VERSION, "model file version %u, this library reads version %u", h.version,
                       G4_FILE_VERSION);
    if (h.file_size != f->size)
        return g4_fail(err, G4_ERR_FORMAT, "truncated or extended: %zu bytes, the header says %llu", f->size,
                       (unsigned long long)h.file_size);
    if (h.data_offset < sizeof h || h.data_offset > f->size || h.n_tensors > 1u << 20 ||
        !g4_inside(h.config_offset, h.config_size, h.data_offset) ||
        !g4_inside(h.tokenizer_offset, h.tokenizer_size, h.data_offset) ||
        !g4_inside(h.table_offset, h.n_tensors * sizeof(g4_tensor_entry), h.data_offset) || h.config_offset % 4 != 0 ||
        h.tokenizer_offset % G4_ALIGN != 0 || h.table_offset % 8 != 0)
        return g4_fail(err, G4_ERR_FORMAT, "the header's offsets lie outside the file");
    const uint64_t sum = g4_checksum(f->data + G4_CHECKSUM_START, (size_t)h.data_offset - G4_CHECKSUM_START);
    if (sum != h.checksum)
        return g4_fail(err, G4_ERR_FORMAT, "header or tables are damaged: checksum %016llx, expected %016llx",
                       (unsigned long long)sum, (unsigned long long)h.checksum);
    f->n_tensors = (int)h.n_tensors;
    f->table = (const g4_tensor_entry *)(const void *)(f->data + h.table_offset);
    f->tokenizer = f->data + h.tokenizer_offset;
    f->tokenizer_size = (size_t)h.tokenizer_size;
    f->bound = g4_alloc(a, h.n_tensors + 1, 1);
    if (!f->bound) return g4_fail(err, G4_ERR_MEMORY, "no memory for %d tensors", f->n_tensors);
    uint64_t end = h.data_offset;
    for (int i = 0; i < f->n_tensors; i++) {
        const g4_status st = g4_file_check_entry(f, &h, i, &end, err);
        if (st) return st;
    }
    return g4_file_check_config(f, a, &h, err);
}

static void g4_file_close(g4_file *f, const g4_allocator *a)
{
    g4_free(a, f->layers);
    g4_free(a, f->bound);
    if (f->mapped) munmap((void *)(uintptr_t)f->data, f->size);
    memset(f, 0, sizeof *f);
}

static g4_status g4_file_map(g4_file *f, const char *path, g4_error *err)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return g4_fail(err, G4_ERR_IO, "cannot open: %s", strerror(errno));
    struct stat st;
    g4_status status = G4_OK;
    if (fstat(fd, &st) != 0) {
        status = g4_fail(err, G4_ERR_IO, "cannot stat: %s", strerror(errno));
    } else if (S_ISDIR(st.st_mode)) {
        status = g4_fail(err, G4_ERR_FORMAT, "is a directory: convert the checkpoint in it with export.py");
    } else if (!S_ISREG(st.st_mode)) {
        status = g4_fail(err, G4_ERR_FORMAT, "not a regular file");
    } else if (st.st_size > 0) {
        void *p =
            (uint64_t)st.st_size > SIZE_MAX ? MAP_FAILED : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            status = g4_fail(err, G4_ERR_IO, "cannot map %lld bytes: %s", (long long)st.st_size, strerror(errno));
        } else {
            f->data = p;
            f->size = (size_t)st.st_size;
            f->mapped = 1;
        }
    }
    close(fd);
    return status;
}

/* Map or take the bytes, then check. Errors are prefixed with the path. */
static g4_status g4_file_open(g4_file *f, const g4_engine_options *opt, const g4_allocator *a, g4_error *err)
{
    memset(f, 0, sizeof *f);
    g4_error inner = { G4_OK, "" };
    g4_status status = G4_OK;
    if (opt->model_path) {
        status = g4_file_map(f, opt->model_path, &inner);
    } else if (!opt->model_data) {
        return g4_fail(err, G4_ERR_ARGUMENT, "neither model_path nor model_data is given");
    } else if ((uintptr_t)opt->model_data % G4_ALIGN != 0) {
        return g4_fail(err, G4_ERR_ARGUMENT, "model_data is not aligned to %d bytes", G4_ALIGN);
    } else {
        f->data = opt->model_data;
        f->size = opt->model_size;
    }
    if (!status) status = g4_file_check(f, a, &inner);
    if (status) {
        g4_file_close(f, a);
        return g4_fail(err, status, "%.100s: %.150s", opt->model_path ? opt->model_path : "model_data", inner.message);
    }
    return G4_OK;
}

/* ---- 3. Configuration and weights --------------------------------------------------------------
 *
 * In: the checked file. Out: structs whose fields have the reference's meanings. Tensor names are looked up here
 * once; after that no code sees a string. Every tensor must be bound by exactly one field and every field must find
 * its tensor, of the expected shape. */

typedef struct {
    g4_layer_config cfg;
    int has_kv; /* owns keys and values */
    int slot;   /* index among the owners of the layer whose keys and values it reads */
    const float *attn_norm, *attn_post_norm, *mlp_norm, *mlp_post_norm; /* (hidden) */
    const float *q_norm, *k_norm;                                       /* (head_dim); k_norm: owners only */
    g4_matrix q, o;               /* (n_heads * head_dim, hidden), (hidden, n_heads * head_dim); no bias */
    g4_matrix k, v;               /* (n_kv_heads * head_dim, hidden): owners only; no v when V is K */
    g4_matrix gate_up, down;      /* (2 * pad16(mlp_dim), hidden) in alternating groups, (hidden, mlp_dim) */
    float scalar;                 /* layer_scalar, else 1 */
    g4_matrix ple_gate, ple_proj; /* (ple_dim, hidden), (hidden, ple_dim); models with per-layer inputs */
    const float *ple_norm;        /* (hidden) */
    /* mixture of experts, beside the dense MLP */
    g4_matrix router;                                        /* (n_experts, hidden) f32 */
    const float *router_scale, *expert_scale;                /* (hidden), (n_experts) */
    const float *moe_norm, *mlp_post_norm1, *mlp_post_norm2; /* (hidden) */
    g4_matrix experts_gate_up, experts_down; /* the first expert; the others follow every `expert_bytes` */
    size_t gate_up_bytes, down_bytes;
} g4_layer;

typedef struct {
    g4_matrix head;        /* (n_vocab, hidden); the embedding too when tied */
    g4_table embed;        /* (n_vocab, hidden), untied only */
    const float *norm;     /* (hidden) */
    const float *rope[2];  /* inverse frequencies (rope_half) of sliding and full layers */
    int rope_half[2];      /* head_dim / 2; 0 when there is no such layer */
    g4_table ple_embed;    /* (n_vocab, n_layers * ple_dim) */
    g4_matrix ple_in;      /* per_layer_model_projection (n_layers * ple_dim, hidden) */
    const float *ple_norm; /* (ple_dim): one for all layers */
    g4_layer *layers;
} g4_weights;

typedef struct { /* the state of binding */
    g4_file *file;
    int cursor;   /* tensors mostly stand in the order in which they are asked for */
    int optional; /* absence is no error for the next find */
    g4_error *err;
    g4_status status; /* the first failure; later calls do nothing */
} g4_binder;

static const g4_tensor_entry *g4_bind_find(g4_binder *b, const char *name)
{
    g4_file *f = b->file;
    for (int i = 0; i < f->n_tensors; i++) {
        const int at = (b->cursor + i) % f->n_tensors;
        if (strcmp(f->table[at].name, name) != 0) continue;
        b->cursor = at + 1;
        if (f->bound[at]++) b->status = g4_fail(b->err, G4_ERR_FORMAT, "tensor %s stands twice in the table", name);
        return &f->table[at];
    }
    return NULL;
}

static void g4_bind_name(char out[64], const char *prefix, int layer, const char *name)
{
    if (layer < 0)
        snprintf(out, 64, "%s%s", prefix, name);
    else
        snprintf(out, 64, "%s.%d.%s", prefix, layer, name);
}

static const g4_tensor_entry *g4_bind(g4_binder *b, const char *prefix, int layer, const char *field, g4_layout layout,
                                      int n_dims, uint64_t d0, uint64_t d1, uint64_t d2)
{
    if (b->status) return NULL;
    char name[64];
    g4_bind_name(name, prefix, layer, field);
    const g4_tensor_entry *t = g4_bind_find(b, name);
    if (b->status) return NULL;
    if (!t) {
        b->status = g4_fail(b->err, G4_ERR_FORMAT, "tensor %s is missing", name);
        return NULL;
    }
    if (t->layout != layout || (int)t->n_dims != n_dims || t->dims[0] != d0 || t->dims[1] != d1 || t->dims[2] != d2) {
        b->status =
            g4_fail(b->err, G4_ERR_FORMAT,
                    "tensor %s: shape (%llu, %llu, %llu) layout %u, expected (%llu, %llu, %llu) layout %d", name,
                    (unsigned long long)t->dims[0], (unsigned long long)t->dims[1], (unsigned long long)t->dims[2],
                    t->layout, (unsigned long long)d0, (unsigned long long)d1, (unsigned long long)d2, (int)layout);
        return NULL;
    }
    return t;
}

/* A float32 vector of n values: norms, scalars, frequencies. */
static const float *g4_bind_vector(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t n)
{
    const g4_tensor_entry *t = g4_bind(b, prefix, layer, field, G4_LAYOUT_PLAIN, 1, n, 1, 1);
    return t ? (const float *)(const void *)(b->file->data + t->offset) : NULL;
}

static g4_matrix g4_bind_matrix(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t rows,
                                uint64_t cols)
{
    const g4_tensor_entry *t = g4_bind(b, prefix, layer, field, G4_LAYOUT_GROUPS16, 2, rows, cols, 1);
    return t ? g4_matrix_at(b->file->data + t->offset, t, rows, cols) : (g4_matrix) { 0 };
}

/* The first of n matrices; *bytes gets the distance from one to the next. */
static g4_matrix g4_bind_experts(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t n,
                                 uint64_t rows, uint64_t cols, size_t *bytes)
{
    const g4_tensor_entry *t = g4_bind(b, prefix, layer, field, G4_LAYOUT_GROUPS16, 3, n, rows, cols);
    if (!t) return (g4_matrix) { 0 };
    *bytes = (size_t)(t->size / n);
    return g4_matrix_at(b->file->data + t->offset, t, rows, cols);
}

static g4_table g4_bind_table(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t rows,
                              uint64_t cols)
{
    const g4_tensor_entry *t = g4_bind(b, prefix, layer, field, G4_LAYOUT_ROWS, 2, rows, cols, 1);
    if (!t) return (g4_table) { 0 };
    return (g4_table) { b->file->data + t->offset, (g4_type)t->type, (g4_scale_type)t->scale_type, (int)rows, (int)cols,
                        (size_t)(t->size / rows) };
}

static void g4_bind_layer(g4_binder *b, g4_layer *w, const g4_config *c, int l)
{
    const g4_layer_config *lc = &w->cfg;
    const uint64_t h = c->hidden, dim = lc->head_dim, q = c->n_heads * dim, kv = lc->n_kv_heads * dim;
    w->attn_norm = g4_bind_vector(b, "l", l, "attn_norm", h);
    w->attn_post_norm = g4_bind_vector(b, "l", l, "attn_post_norm", h);
    w->mlp_norm = g4_bind_vector(b, "l", l, "mlp_norm", h);
    w->mlp_post_norm = g4_bind_vector(b, "l", l, "mlp_post_norm", h);
    w->q_norm = g4_bind_vector(b, "l", l, "q_norm", dim);
    w->q = g4_bind_matrix(b, "l", l, "q", q, h);
    w->o = g4_bind_matrix(b, "l", l, "o", h, q);
    if (w->has_kv) {
        w->k_norm = g4_bind_vector(b, "l", l, "k_norm", dim);
        w->k = g4_bind_matrix(b, "l", l, "k", kv, h);
        if (!(lc->flags & G4_LAYER_K_EQ_V)) w->v = g4_bind_matrix(b, "l", l, "v", kv, h);
    }
    w->gate_up = g4_bind_matrix(b, "l", l, "gate_up", 2 * g4_round_up(lc->mlp_dim, 16), h);
    w->down = g4_bind_matrix(b, "l", l, "down", h, lc->mlp_dim);
    const float *scalar = lc->flags & G4_LAYER_SCALAR ? g4_bind_vector(b, "l", l, "scalar", 1) : NULL;
    w->scalar = scalar ? *scalar : 1.0f;
    if (c->ple_dim) {
        w->ple_gate = g4_bind_matrix(b, "l", l, "ple_gate", c->ple_dim, h);
        w->ple_proj = g4_bind_matrix(b, "l", l, "ple_proj", h, c->ple_dim);
        w->ple_norm = g4_bind_vector(b, "l", l, "ple_norm", h);
    }
    if (lc->flags & G4_LAYER_MOE) {
        w->router = g4_bind_matrix(b, "l", l, "router", c->n_experts, h);
        w->router_scale = g4_bind_vector(b, "l", l, "router_scale", h);
        w->expert_scale = g4_bind_vector(b, "l", l, "expert_scale", c->n_experts);
        w->moe_norm = g4_bind_vector(b, "l", l, "moe_norm", h);
        w->mlp_post_norm1 = g4_bind_vector(b, "l", l, "mlp_post_norm1", h);
        w->mlp_post_norm2 = g4_bind_vector(b, "l", l, "mlp_post_norm2", h);
        w->experts_gate_up = g4_bind_experts(b, "l", l, "experts.gate_up", c->n_experts,
                                             2 * g4_round_up(c->expert_dim, 16), h, &w->gate_up_bytes);
        w->experts_down = g4_bind_experts(b, "l", l, "experts.down", c->n_experts, h, c->expert_dim, &w->down_bytes);
    }
}

/* Which layers own keys and values, and the slot (0..n_owners-1) each layer reads. Returns the number of owners. */
static int g4_bind_owners(g4_layer *layers, const g4_file *f)
{
    int n = 0;
    for (int l = 0; l < (int)f->config.n_layers; l++) {
        layers[l].cfg = f->layers[l];
        layers[l].has_kv = f->layers[l].kv_source == (uint32_t)l;
        layers[l].slot = layers[l].has_kv ? n++ : layers[f->layers[l].kv_source].slot;
    }
    return n;
}

static void g4_bind_text(g4_binder *b, g4_weights *w)
{
    const g4_config *c = &b->file->config;
    const uint64_t h = c->hidden, v = c->n_vocab;
    if (c->flags & G4_CONFIG_TIED) {
        w->head = g4_bind_matrix(b, "embed", -1, "", v, h);
    } else {
        w->embed = g4_bind_table(b, "embed", -1, "", v, h);
        w->head = g4_bind_matrix(b, "head", -1, "", v, h);
    }
    w->norm = g4_bind_vector(b, "norm", -1, "", h);
    for (int full = 0; full < 2; full++) {
        uint64_t dim = 0;
        for (uint32_t l = 0; l < c->n_layers; l++)
            if ((int)(b->file->layers[l].flags & G4_LAYER_FULL) == full) {
                if (dim && dim != b->file->layers[l].head_dim) {
                    b->status = b->status ? b->status
                                          : g4_fail(b->err, G4_ERR_FORMAT,
                                                    "layer %u: head dimension %u where others of its kind have %llu", l,
                                                    b->file->layers[l].head_dim, (unsigned long long)dim);
                }
                dim = b->file->layers[l].head_dim;
            }
        if (dim) w->rope[full] = g4_bind_vector(b, full ? "rope.full" : "rope.sliding", -1, "", dim / 2);
        w->rope_half[full] = (int)(dim / 2);
    }
    if (c->ple_dim) {
        w->ple_embed = g4_bind_table(b, "ple.embed", -1, "", v, (uint64_t)c->n_layers * c->ple_dim);
        w->ple_in = g4_bind_matrix(b, "ple.proj", -1, "", (uint64_t)c->n_layers * c->ple_dim, h);
        w->ple_norm = g4_bind_vector(b, "ple.norm", -1, "", c->ple_dim);
    }
    for (uint32_t l = 0; l < c->n_layers; l++) g4_bind_layer(b, &w->layers[l], c, (int)l);
}

/* Everything in the file must have been asked for: a tensor nobody reads means that writer and reader disagree. */
static void g4_bind_end(g4_binder *b)
{
    for (int i = 0; i < b->file->n_tensors && !b->status; i++)
        if (!b->file->bound[i])
            b->status = g4_fail(b->err, G4_ERR_FORMAT, "tensor %s is not one this model has", b->file->table[i].name);
}

/* ---- 7. Keys and values -------------------------------------------------------------------------
 *
 * Pages of 64 positions, one per owning layer, counted references. A full layer holds all pages of the timeline, a
 * sliding layer those that its window (and one page more, for going back a little) can reach. Inside a page, per KV
 * head: K transposed (head_dim, 64), V (64, head_dim), and for q8_0 one scale per position for each. Pages change
 * hands under the engine's lock only. */

typedef struct {
    int refs;            /* timelines and snapshots that hold it */
    int snapshot_refs;   /* snapshots among them */
    int forked;          /* another session may hold it: copy before writing while refs > 1 */
    unsigned char *data; /* page_bytes */
} g4_page;

typedef struct { /* the cache of one owning layer */
    int window;  /* 0: full */
    int n_heads, head_dim;
    size_t head_bytes, page_bytes;
    int first, end;  /* pages held: [first, end) */
    g4_page **pages; /* (n_ctx / 64 + 1) */
} g4_cache;

typedef struct
{ /* a position that can be returned to: the sliding layers' pages as they were; full layers keep theirs */
    int pos;
    int n_pages;
    int *first;      /* (n_owners): first page of each sliding layer */
    int *count;      /* (n_owners): pages of each, 0 for full layers */
    g4_page **pages; /* (n_pages) */
} g4_snapshot;

/* Buffers of one forward pass, sized for the largest chunk; (rows, columns), columns padded to 64 with zeros. */
typedef struct {
    int cap;          /* tokens */
    float *x;         /* (cap, hidden): the residual stream */
    g4_acts normed;   /* (cap, hidden): what the projections read */
    g4_acts wide;     /* (cap, wide): attention output, MLP hidden layer or per-layer gate */
    float *q, *k, *v; /* (cap, q_cols), (cap, kv_cols) */
    int q_cols, kv_cols;
    float *out; /* (cap, hidden): what a block adds to the stream */
    float *ple; /* (cap, ple_cols): per-layer inputs */
    int ple_cols;
    float *cos[2], *sin[2]; /* (cap, max head_dim / 2) for sliding and full layers */
    int rope_cols;
    const float **soft; /* (cap): the soft token that stands at this position, or NULL */
    int *see;           /* (cap): last position that a sliding layer lets this token see */
    /* experts */
    float *route;          /* (cap, n_experts) */
    int *expert, *slot;    /* (cap, used): chosen experts by ascending id; their rows in the gathered buffers */
    float *gain;           /* (cap, used) */
    int *expert_first;     /* (n_experts + 1): rows of each expert */
    g4_acts gathered;      /* (cap * used, hidden) */
    g4_acts expert_hidden; /* (cap * used, expert_dim) */
    float *expert_out;     /* (cap * used, hidden) */
    float *dense;          /* (cap, hidden): output of the dense MLP beside the experts */
    float *logits;         /* (G4_LOGIT_ROWS, vocab) */
    float *worker;         /* (threads, worker_floats): per-thread room for attention and GeGLU tiles */
    size_t worker_floats;
} g4_scratch;

#define G4_CHUNK_MAX 512                       /* tokens evaluated together at most ... */
#define G4_CHUNK_PICTURE 1120                  /* ... or the largest picture, where its tokens see each other */
#define G4_LOGIT_ROWS 8                        /* positions whose logits are computed together when all are wanted */
#define G4_SOFT_CACHE_SLOTS 256                /* soft tokens the engine remembers, ... */
#define G4_SOFT_CACHE_BYTES ((size_t)64 << 20) /* ... and their size together; one is always kept */
#define G4_SPAN 256        /* positions after which partial results are combined: decode splits a long context there */
#define G4_GEGLU_TOKENS 64 /* tokens whose gate and up values stay in cache together, ... */
#define G4_GEGLU_GROUPS 8  /* ... and groups of their matrix */
#define G4_PIECE_BYTES                                                                                                 \
    65536 /* weights of one piece of a product: some microseconds of reading, far above the cost of a hand-out */

struct g4_engine {
    g4_allocator allocator;
    const g4_allocator *a; /* &allocator, or NULL for malloc */
    g4_log_fn log;
    void *log_user;
    g4_file file;
    g4_weights weights;
    g4_tokenizer tokenizer;
    const g4_kernels *kernels;
    g4_pool *pool;
    pthread_mutex_t lock; /* the pool, the scratch buffers, pages and soft tokens */
    int lock_ready;
    g4_scratch scratch;
    uint64_t scratch_bytes;
    int n_owners, last_owner; /* layers with keys and values of their own; the last of them */
    int all_f32;              /* every matrix is float32: keys and values default to float32 too */
    struct g4_vision *vision; /* NULL: the file has none */
    struct g4_audio_tower *audio;
    g4_soft *softs[G4_SOFT_CACHE_SLOTS]; /* encoded pictures and sounds, the latest last; one reference each */
    int n_softs;
    uint64_t fingerprint; /* of configuration and weights, for saved states; computed at the first save or load */
};

typedef enum { G4_READY_NOTHING, G4_READY_STATE, G4_READY_RAW, G4_READY_LOGITS } g4_readiness;

struct g4_session {
    g4_engine *e;
    int n_ctx, chunk;
    g4_kv_type kv;
    uint64_t snapshot_budget;
    g4_progress_fn progress;
    void *user;
    int n;            /* positions evaluated */
    g4_token *tokens; /* (n_ctx) */
    g4_run *runs;     /* media in the timeline, by position */
    int n_runs, cap_runs;
    g4_cache *caches;       /* (n_owners) */
    g4_snapshot *snapshots; /* by position */
    int n_snapshots, cap_snapshots;
    float *state;  /* (hidden): final state of the last position, before its norm, if ready is G4_READY_STATE */
    float *logits; /* (vocab): of the last position; softcapped if ready is G4_READY_LOGITS, not yet if G4_READY_RAW */
    float *group_max; /* (vocab / 16): then the largest of each group of the head */
    g4_readiness ready;
    uint64_t n_head_rows;       /* rows of the vocabulary head computed so far ... */
    uint64_t n_guessed, n_held; /* ... guesses evaluated, and those that were right: for tests and benches */
    float *partial; /* attention split over spans: (n_heads * spans, head_dim + 2) */
    size_t partial_floats;
    float *work;              /* (vocab): logits after penalties */
    g4_candidate *candidates; /* (vocab) */
    uint32_t *mask, *seen;    /* (vocab / 32 + 1): what the constraint allows; what the timeline holds */
    uint64_t n_evaluated;
};

static g4_status g4_lock(const g4_engine *e)
{
    return pthread_mutex_lock((pthread_mutex_t *)(uintptr_t)&e->lock) == 0 ? G4_OK : G4_ERR_ARGUMENT;
}
static void g4_unlock(const g4_engine *e) { pthread_mutex_unlock((pthread_mutex_t *)(uintptr_t)&e->lock); }

static void g4_page_release(const g4_engine *e, g4_page *p)
{
    if (!p || --p->refs > 0) return;
    g4_free(e->a, p->data);
    g4_free(e->a, p);
}

static g4_page *g4_page_new(const g4_engine *e, size_t bytes)
{
    g4_page *p = g4_alloc(e->a, 1, sizeof *p);
    if (!p) return NULL;
    p->data = g4_alloc(e->a, 1, bytes);
    if (!p->data) {
        g4_free(e->a, p);
        return NULL;
    }
    p->refs = 1;
    return p;
}

static g4_kv_tile g4_cache_tile(const g4_cache *c, g4_kv_type type, int page, int head)
{
    const size_t at = (size_t)head * c->head_bytes, values = (size_t)c->head_dim * G4_PAGE * g4_kv_size(type);
    const unsigned char *p = c->pages[page]->data + at;
    const float *scales = type == G4_KV_Q8_0 ? (const float *)(const void *)(p + 2 * values) : NULL;
    const unsigned char *next = page + 1 < c->end ? c->pages[page + 1]->data + at : NULL;
    return (g4_kv_tile) { p, p + values, scales, scales ? scales + G4_PAGE : NULL, next };
}

/* Drop the pages that only positions from n on need. */
static void g4_cache_truncate(const g4_engine *e, g4_cache *c, int n)
{
    const int end = (n + G4_PAGE - 1) / G4_PAGE;
    while (c->end > end && c->end > c->first) {
        g4_page_release(e, c->pages[--c->end]);
        c->pages[c->end] = NULL;
    }
    if (c->end > end || c->first > end) c->first = c->end = end;
}

/* Make pages for positions [pos, pos + n) that this session alone may write. */
static int g4_cache_reserve(const g4_engine *e, g4_cache *c, int pos, int n)
{
    for (int page = pos / G4_PAGE; page <= (pos + n - 1) / G4_PAGE; page++) {
        if (page >= c->end) {
            if (!(c->pages[page] = g4_page_new(e, c->page_bytes))) return 0;
            if (c->end == c->first) c->first = page;
            c->end = page + 1;
        } else if (c->pages[page]->forked && c->pages[page]->refs > 1) {
            g4_page *copy = g4_page_new(e, c->page_bytes);
            if (!copy) return 0;
            memcpy(copy->data, c->pages[page]->data, c->page_bytes);
            g4_page_release(e, c->pages[page]);
            c->pages[page] = copy;
        }
    }
    return 1;
}

static g4_status g4_session_reserve(g4_session *s, int n, g4_error *err)
{
    for (int i = 0; i < s->e->n_owners; i++) {
        if (g4_cache_reserve(s->e, &s->caches[i], s->n, n)) continue;
        for (int j = 0; j <= i; j++) g4_cache_truncate(s->e, &s->caches[j], s->n);
        return g4_fail(err, G4_ERR_MEMORY, "no memory for the keys and values of positions %d to %d", s->n,
                       s->n + n - 1);
    }
    return G4_OK;
}

/* First position a sliding layer must hold so that a timeline of n tokens can evaluate its last one again. */
static int g4_window_start(int n, int window) { return g4_max_int(0, n - window); }

/* Let go of what sliding windows have left behind, keeping one page more than needed: going back a few tokens then
 * costs nothing. */
static void g4_session_slide(g4_session *s)
{
    for (int i = 0; i < s->e->n_owners; i++) {
        g4_cache *c = &s->caches[i];
        if (!c->window) continue;
        const int keep = g4_window_start(s->n, c->window) / G4_PAGE - 1;
        for (; c->first < keep && c->first < c->end; c->first++) {
            g4_page_release(s->e, c->pages[c->first]);
            c->pages[c->first] = NULL;
        }
    }
}

static void g4_snapshot_drop(g4_session *s, int i)
{
    g4_snapshot *snap = &s->snapshots[i];
    for (int p = 0; p < snap->n_pages; p++) {
        snap->pages[p]->snapshot_refs--;
        g4_page_release(s->e, snap->pages[p]);
    }
    g4_free(s->e->a, snap->first);
    memmove(snap, snap + 1, (size_t)(s->n_snapshots - i - 1) * sizeof *snap);
    s->n_snapshots--;
}

/* Bytes that would be free if there were no snapshots of this session. */
static uint64_t g4_snapshot_only_bytes(const g4_session *s)
{
    uint64_t bytes = 0;
    for (int i = 0; i < s->n_snapshots; i++) {
        const g4_snapshot *snap = &s->snapshots[i];
        int at = 0;
        for (int c = 0; c < s->e->n_owners; c++)
            for (int p = 0; p < snap->count[c]; p++, at++) {
                const g4_page *page = snap->pages[at];
                /* a page held by k snapshots is counted k times, a k-th each */
                if (page->refs == page->snapshot_refs) bytes += s->caches[c].page_bytes / (uint64_t)page->snapshot_refs;
            }
    }
    return bytes;
}

/* Remember position s->n. One block holds the three arrays. */
static g4_status g4_snapshot_take(g4_session *s, g4_error *err)
{
    const g4_engine *e = s->e;
    if (s->n_snapshots > 0 && s->snapshots[s->n_snapshots - 1].pos == s->n) return G4_OK;
    int n_pages = 0;
    for (int c = 0; c < e->n_owners; c++)
        if (s->caches[c].window) n_pages += s->caches[c].end - s->caches[c].first;
    if (s->n_snapshots == s->cap_snapshots) {
        const int cap = s->cap_snapshots ? 2 * s->cap_snapshots : 16;
        g4_snapshot *grown = g4_realloc(e->a, s->snapshots, (size_t)cap, sizeof *grown);
        if (!grown) return g4_fail(err, G4_ERR_MEMORY, "no memory for %d snapshots", cap);
        s->snapshots = grown;
        s->cap_snapshots = cap;
    }
    const size_t ints = g4_round_up(2 * (size_t)e->n_owners, 2);
    int *block = g4_alloc(e->a, 1, ints * sizeof *block + (size_t)n_pages * sizeof(g4_page *));
    if (!block) return g4_fail(err, G4_ERR_MEMORY, "no memory for a snapshot of %d pages", n_pages);
    g4_snapshot snap = { s->n, n_pages, block, block + e->n_owners, (g4_page **)(void *)(block + ints) };
    int at = 0;
    for (int c = 0; c < e->n_owners; c++) {
        const g4_cache *cache = &s->caches[c];
        if (!cache->window) continue;
        snap.first[c] = cache->first;
        snap.count[c] = cache->end - cache->first;
        for (int p = cache->first; p < cache->end; p++) {
            cache->pages[p]->refs++;
            cache->pages[p]->snapshot_refs++;
            snap.pages[at++] = cache->pages[p];
        }
    }
    s->snapshots[s->n_snapshots++] = snap;
    while (s->n_snapshots > 1 && g4_snapshot_only_bytes(s) > s->snapshot_budget) g4_snapshot_drop(s, 0);
    return G4_OK;
}

/* Put the sliding layers' pages of snapshot i in place of the present ones and cut everything after it. */
static void g4_snapshot_restore(g4_session *s, int i)
{
    const g4_snapshot *snap = &s->snapshots[i];
    int at = 0;
    for (int c = 0; c < s->e->n_owners; c++) {
        g4_cache *cache = &s->caches[c];
        if (cache->window) {
            g4_cache_truncate(s->e, cache, 0);
            for (int p = cache->first; p < cache->end; p++) g4_page_release(s->e, cache->pages[p]);
            cache->first = snap->first[c];
            cache->end = snap->first[c] + snap->count[c];
            for (int p = cache->first; p < cache->end; p++) {
                cache->pages[p] = snap->pages[at++];
                cache->pages[p]->refs++;
            }
        } else {
            g4_cache_truncate(s->e, cache, snap->pos);
        }
    }
    while (s->n_snapshots > i + 1) g4_snapshot_drop(s, s->n_snapshots - 1);
    s->n = snap->pos;
    s->ready = G4_READY_NOTHING;
}

/* Write one token's keys (n_heads, head_dim) and values into its lane of the page. q8_0: q = round(x * 127 / max),
 * scale = max / 127. */
static void g4_cache_store(const g4_cache *c, g4_kv_type type, int pos, const float *k, const float *v)
{
    const int lane = pos % G4_PAGE, dim = c->head_dim;
    for (int h = 0; h < c->n_heads; h++, k += dim, v += dim) {
        unsigned char *p = c->pages[pos / G4_PAGE]->data + (size_t)h * c->head_bytes;
        unsigned char *pv = p + (size_t)dim * G4_PAGE * g4_kv_size(type);
        if (type == G4_KV_F16) {
            uint16_t *k16 = (uint16_t *)(void *)p + lane, *v16 = (uint16_t *)(void *)pv + lane * dim;
            for (int d = 0; d < dim; d++) k16[d * G4_PAGE] = g4_f32_to_f16(k[d]);
            for (int d = 0; d < dim; d++) v16[d] = g4_f32_to_f16(v[d]);
        } else if (type == G4_KV_F32) {
            float *k32 = (float *)(void *)p + lane, *v32 = (float *)(void *)pv + lane * dim;
            for (int d = 0; d < dim; d++) k32[d * G4_PAGE] = k[d];
            memcpy(v32, v, (size_t)dim * sizeof *v);
        } else {
            float *scales = (float *)(void *)(p + 2 * (size_t)dim * G4_PAGE);
            float most_k = 0, most_v = 0;
            for (int d = 0; d < dim; d++) {
                most_k = fmaxf(most_k, fabsf(k[d]));
                most_v = fmaxf(most_v, fabsf(v[d]));
            }
            const float to_k = most_k > 0 ? 127.0f / most_k : 0, to_v = most_v > 0 ? 127.0f / most_v : 0;
            int8_t *k8 = (int8_t *)p + lane, *v8 = (int8_t *)pv + lane * dim;
            for (int d = 0; d < dim; d++) k8[d * G4_PAGE] = (int8_t)rintf(k[d] * to_k);
            for (int d = 0; d < dim; d++) v8[d] = (int8_t)rintf(v[d] * to_v);
            scales[lane] = most_k / 127.0f;
            scales[G4_PAGE + lane] = most_v / 127.0f;
        }
    }
}

/* ---- 8. Attention -------------------------------------------------------------------------------
 *
 * In: q (n, n_heads, head_dim) after norm, RoPE and scale; keys and values in pages. Out: (n, n_heads * head_dim).
 * Full layers see every position up to their own, sliding layers the last `window`, themselves included, and inside a
 * two-way picture block its future too.
 *
 * A query's result is defined over spans of 256 positions (absolute): inside a span the online softmax runs over
 * tiles of 64 in order; the spans' results (m, l, o) are combined in order. So it does not matter whether one thread
 * runs all spans of a query (prompts) or each span has its own (a long context and one token). */

typedef struct {
    g4_engine *e;
    g4_session *s;
    const g4_layer *layer;
    int t0, n, pos;     /* tokens [t0, n) of the chunk; token t stands at position pos + t */
    int group;          /* tokens per unit */
    int heads;          /* query heads per KV head */
    int span0, n_spans; /* spans any token of this chunk sees; n_spans partial results when split */
    int split;
} g4_attention;

/* The positions [*lo, *hi) that token t sees. */
static void g4_visible(const g4_attention *at, int t, int *lo, int *hi)
{
    const int p = at->pos + t, full = (int)(at->layer->cfg.flags & G4_LAYER_FULL);
    *lo = full ? 0 : g4_max_int(0, p + 1 - (int)at->e->file.config.window);
    *hi = (full ? p : at->e->scratch.see[t]) + 1;
}

/* One span for n_q queries: m, l, o start empty here. */
static void g4_attend_span(const g4_attention *at, int kv_head, int span, const float *q, int n_q, const int *lo,
                           const int *hi, float *m, float *l, float *o)
{
    const g4_cache *c = &at->s->caches[at->layer->slot];
    int tile_lo[G4_ATTEND_GROUP], tile_hi[G4_ATTEND_GROUP];
    for (int i = 0; i < n_q; i++) {
        m[i] = -INFINITY;
        l[i] = 0;
    }
    memset(o, 0, (size_t)n_q * (size_t)c->head_dim * sizeof *o);
    for (int page = span * (G4_SPAN / G4_PAGE); page < (span + 1) * (G4_SPAN / G4_PAGE); page++) {
        int any = 0;
        for (int i = 0; i < n_q; i++) {
            tile_lo[i] = g4_max_int(lo[i] - page * G4_PAGE, 0);
            tile_hi[i] = g4_min_int(hi[i] - page * G4_PAGE, G4_PAGE);
            any |= tile_lo[i] < tile_hi[i];
        }
        if (!any) continue;
        const g4_kv_tile tile = g4_cache_tile(c, at->s->kv, page, kv_head);
        at->e->kernels->attend(&tile, at->s->kv, c->head_dim, q, n_q, tile_lo, tile_hi, m, l, o);
    }
}

/* (M, L, O) += (m, l, o) of the next span, for one query. */
static void g4_attend_merge(float *M, float *L, float *O, float m, float l, const float *o, int dim)
{
    if (m == -INFINITY) return;
    const float most = fmaxf(*M, m), old = expf(*M - most), add = expf(m - most);
    *L = *L * old + l * add;
    for (int d = 0; d < dim; d++) O[d] = O[d] * old + o[d] * add;
    *M = most;
}

/* A unit is a group of tokens and a KV head. Gathers its queries (tokens x heads, head_dim) and their visible ranges;
 * returns their number. */
static int g4_attend_gather(const g4_attention *at, int unit, float *q, int *lo, int *hi, int *first_token,
                            int *kv_head)
{
    const g4_scratch *b = &at->e->scratch;
    const int n_kv = (int)at->layer->cfg.n_kv_heads, dim = (int)at->layer->cfg.head_dim;
    *kv_head = unit % n_kv;
    *first_token = at->t0 + unit / n_kv * at->group;
    const int end = g4_min_int(*first_token + at->group, at->n);
    int n_q = 0;
    for (int t = *first_token; t < end; t++) {
        const float *from = b->q + (size_t)t * (size_t)b->q_cols + (size_t)(*kv_head * at->heads * dim);
        memcpy(q + (size_t)n_q * (size_t)dim, from, (size_t)(at->heads * dim) * sizeof *q);
        for (int h = 0; h < at->heads; h++, n_q++) g4_visible(at, t, &lo[n_q], &hi[n_q]);
    }
    return n_q;
}

static void g4_attend_finish(const g4_attention *at, int first_token, int kv_head, int n_q, const float *L,
                             const float *O)
{
    g4_acts *out = &at->e->scratch.wide;
    const int dim = (int)at->layer->cfg.head_dim;
    for (int i = 0; i < n_q; i++) {
        const int t = first_token + i / at->heads, h = kv_head * at->heads + i % at->heads;
        float *y = out->x + (size_t)t * out->x_stride + (size_t)h * (size_t)dim;
        const float r = 1.0f / L[i];
        for (int d = 0; d < dim; d++) y[d] = O[(size_t)i * (size_t)dim + (size_t)d] * r;
    }
}

/* A piece: one unit over all its spans. */
static void g4_attend_unit(void *ctx, int piece, int worker)
{
    const g4_attention *at = ctx;
    const size_t dim = at->layer->cfg.head_dim, block = G4_ATTEND_GROUP * dim;
    float *q = at->e->scratch.worker + (size_t)worker * at->e->scratch.worker_floats;
    float *o = q + block, *O = o + block;
    float m[G4_ATTEND_GROUP], l[G4_ATTEND_GROUP], M[G4_ATTEND_GROUP], L[G4_ATTEND_GROUP];
    int lo[G4_ATTEND_GROUP], hi[G4_ATTEND_GROUP], first_token, kv_head;
    const int n_q = g4_attend_gather(at, piece, q, lo, hi, &first_token, &kv_head);
    int from = lo[0], to = hi[0];
    for (int i = 0; i < n_q; i++) {
        M[i] = -INFINITY;
        L[i] = 0;
        from = g4_min_int(from, lo[i]);
        to = g4_max_int(to, hi[i]);
    }
    memset(O, 0, (size_t)n_q * dim * sizeof *O);
    for (int span = from / G4_SPAN; span <= (to - 1) / G4_SPAN; span++) {
        g4_attend_span(at, kv_head, span, q, n_q, lo, hi, m, l, o);
        for (int i = 0; i < n_q; i++)
            g4_attend_merge(&M[i], &L[i], O + (size_t)i * dim, m[i], l[i], o + (size_t)i * dim, (int)dim);
    }
    g4_attend_finish(at, first_token, kv_head, n_q, L, O);
}

/* Partial results of (unit, span): m and l of G4_ATTEND_GROUP queries, then o. */
static float *g4_attend_partial(const g4_attention *at, int piece)
{
    const size_t dim = at->layer->cfg.head_dim, n_q = (size_t)at->group * (size_t)at->heads;
    return at->s->partial + (size_t)piece * n_q * (dim + 2);
}

/* A piece: one span of one unit. */
static void g4_attend_split(void *ctx, int piece, int worker)
{
    const g4_attention *at = ctx;
    const int most = at->group * at->heads;
    float *q = at->e->scratch.worker + (size_t)worker * at->e->scratch.worker_floats, *m = g4_attend_partial(at, piece);
    int lo[G4_ATTEND_GROUP], hi[G4_ATTEND_GROUP], first_token, kv_head;
    const int n_q = g4_attend_gather(at, piece / at->n_spans, q, lo, hi, &first_token, &kv_head);
    g4_attend_span(at, kv_head, at->span0 + piece % at->n_spans, q, n_q, lo, hi, m, m + most, m + 2 * most);
}

/* A piece: combine the spans of one unit. */
static void g4_attend_combine(void *ctx, int piece, int worker)
{
    const g4_attention *at = ctx;
    const size_t dim = at->layer->cfg.head_dim;
    const int most = at->group * at->heads;
    float *q = at->e->scratch.worker + (size_t)worker * at->e->scratch.worker_floats, *O = q + G4_ATTEND_GROUP * dim;
    float M[G4_ATTEND_GROUP], L[G4_ATTEND_GROUP];
    int lo[G4_ATTEND_GROUP], hi[G4_ATTEND_GROUP], first_token, kv_head;
    const int n_q = g4_attend_gather(at, piece, q, lo, hi, &first_token, &kv_head);
    for (int i = 0; i < n_q; i++) {
        M[i] = -INFINITY;
        L[i] = 0;
    }
    memset(O, 0, (size_t)n_q * dim * sizeof *O);
    for (int span = 0; span < at->n_spans; span++) {
        const float *m = g4_attend_partial(at, piece * at->n_spans + span);
        for (int i = 0; i < n_q; i++)
            g4_attend_merge(&M[i], &L[i], O + (size_t)i * dim, m[i], m[most + i], m + 2 * most + (size_t)i * dim,
                            (int)dim);
    }
    g4_attend_finish(at, first_token, kv_head, n_q, L, O);
}

static void g4_attention_run(g4_engine *e, g4_session *s, const g4_layer *layer, int pos, int t0, int n)
{
    g4_attention at = { e, s, layer, t0, n, pos, 1, (int)(e->file.config.n_heads / layer->cfg.n_kv_heads), 0, 0, 0 };
    at.group = g4_max_int(1, G4_ATTEND_GROUP / at.heads);
    const int units = (n - t0 + at.group - 1) / at.group * (int)layer->cfg.n_kv_heads;
    int lo = INT_MAX, hi = 0;
    for (int t = t0; t < n; t++) {
        int a, b;
        g4_visible(&at, t, &a, &b);
        lo = g4_min_int(lo, a);
        hi = g4_max_int(hi, b);
    }
    at.span0 = lo / G4_SPAN;
    at.n_spans = (hi - 1) / G4_SPAN + 1 - at.span0;
    if (n - t0 < at.group) at.group = n - t0;
    const size_t partial =
        (size_t)units * (size_t)at.n_spans * (size_t)(at.group * at.heads) * (layer->cfg.head_dim + 2);
    if (units < 2 * g4_pool_size(e->pool) && at.n_spans > 1 && partial <= s->partial_floats) {
        g4_parallel_for(e->pool, units * at.n_spans, g4_attend_split, &at);
        g4_parallel_for(e->pool, units, g4_attend_combine, &at);
    } else {
        g4_parallel_for(e->pool, units, g4_attend_unit, &at);
    }
}

/* ---- 9. Feed-forward, experts, per-layer inputs ---------------------------------------------------
 *
 * First the one way in which all matrices are multiplied, then what a layer adds to the stream besides attention. */

static float *g4_row(const g4_acts *a, int t) { return a->x + (size_t)t * a->x_stride; }

/* Row t is complete in its first `cols` columns: clear the padding and quantise. */
static void g4_acts_ready(const g4_engine *e, const g4_acts *a, int t, int cols)
{
    float *x = g4_row(a, t);
    const int padded = (int)g4_round_up((size_t)cols, 64);
    memset(x + cols, 0, (size_t)(padded - cols) * sizeof *x);
    if (e->all_f32) return;
    const size_t steps = (size_t)a->steps;
    e->kernels->quantize(a->q + (size_t)t * 64 * steps, a->d + (size_t)t * 2 * steps, a->sum + (size_t)t * 2 * steps, x,
                         padded);
}

/* The same buffer seen as rows of `cols` columns: strides follow the width, so that a row is one unbroken piece. */
static g4_acts g4_acts_as(const g4_acts *a, int cols)
{
    g4_acts view = *a;
    view.steps = (cols + 63) / 64;
    view.x_stride = 64 * (size_t)view.steps;
    return view;
}

#define G4_MAX_PRODUCTS 3
typedef struct {
    const g4_engine *e;
    const g4_acts *x;
    int n;
    struct {
        const g4_matrix *w;
        float *y; /* token t0, row 0 */
        size_t stride;
        int t0, t1, g0, g1;
        int per_piece; /* groups of one piece */
        int first_piece;
    } p[G4_MAX_PRODUCTS];
    int n_pieces;
} g4_products;

/* Groups of a matrix in one piece. Many tokens: more, because a piece prepares its inputs once for all its groups, but
 * every thread has 16 pieces. */
static int g4_piece_groups(const g4_engine *e, const g4_matrix *w, int tokens)
{
    const int few = g4_max_int(1, (int)(G4_PIECE_BYTES / w->group_bytes));
    if (tokens < G4_GEGLU_TOKENS) return few;
    return g4_max_int(few, g4_min_int(G4_GEGLU_GROUPS, w->groups / (16 * g4_pool_size(e->pool))));
}

static void g4_products_add(g4_products *job, const g4_matrix *w, float *y, size_t stride, int t0, int t1, int g0,
                            int g1)
{
    if (!w->data || t0 >= t1 || g0 >= g1) return;
    const int per_piece = g4_piece_groups(job->e, w, t1 - t0);
    job->p[job->n].w = w;
    job->p[job->n].y = y;
    job->p[job->n].stride = stride;
    job->p[job->n].t0 = t0;
    job->p[job->n].t1 = t1;
    job->p[job->n].g0 = g0;
    job->p[job->n].g1 = g1;
    job->p[job->n].per_piece = per_piece;
    job->p[job->n].first_piece = job->n_pieces;
    job->n_pieces += (g1 - g0 + per_piece - 1) / per_piece;
    job->n++;
}

static void g4_products_piece(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_products *job = ctx;
    int i = job->n - 1;
    while (piece < job->p[i].first_piece) i--;
    const int g0 = job->p[i].g0 + (piece - job->p[i].first_piece) * job->p[i].per_piece;
    const int g1 = g4_min_int(g0 + job->p[i].per_piece, job->p[i].g1);
    float *y = job->p[i].y + 16 * (size_t)g0;
    job->e->kernels->gemm[job->p[i].w->type](y, job->p[i].stride, job->p[i].w, job->x, job->p[i].t0, job->p[i].t1, g0,
                                             g1);
}

/* y[t] = W x[t] for tokens [t0, t1); y points at token 0. */
static void g4_matmul(g4_engine *e, float *y, size_t stride, const g4_matrix *w, const g4_acts *x, int t0, int t1)
{
    g4_products job = { .e = e, .x = x };
    g4_products_add(&job, w, y + (size_t)t0 * stride, stride, t0, t1, 0, w->groups);
    g4_parallel_for(e->pool, job.n_pieces, g4_products_piece, &job);
}

/* h[t][i] = gelu(gate row i . x[t]) * (up row i . x[t]) for one range of groups of a gate_up matrix; tile:
 * G4_GEGLU_TOKENS x 16 (g1 - g0). */
static void g4_geglu_groups(const g4_engine *e, float *h, size_t stride, const g4_matrix *w, const g4_acts *x, int t0,
                            int t1, int g0, int g1, float *tile)
{
    const size_t width = 16 * (size_t)(g1 - g0);
    for (int t = t0; t < t1; t += G4_GEGLU_TOKENS) {
        const int end = g4_min_int(t + G4_GEGLU_TOKENS, t1);
        e->kernels->gemm[w->type](tile, width, w, x, t, end, g0, g1);
        for (int i = t; i < end; i++)
            for (int g = g0; g < g1; g += 2) {
                const float *gate = tile + (size_t)(i - t) * width + 16 * (size_t)(g - g0);
                e->kernels->geglu(h + (size_t)(i - t0) * stride + 8 * (size_t)g, gate, gate + 16, 16);
            }
    }
}

/* Groups of a gate_up matrix in one piece: pairs, and few enough for the tile in the worker's buffer. */
static int g4_geglu_per_piece(const g4_engine *e, const g4_matrix *w, int tokens)
{
    return 2 * g4_max_int(1, g4_min_int(g4_piece_groups(e, w, tokens), G4_GEGLU_GROUPS) / 2);
}

typedef struct {
    g4_engine *e;
    const g4_layer *layer;
    const g4_acts *x, *h;
    int t0, n, per_piece, pieces;
} g4_mlp;

static void g4_mlp_piece(void *ctx, int piece, int worker)
{
    const g4_mlp *job = ctx;
    const g4_matrix *w = &job->layer->gate_up;
    const int g0 = piece * job->per_piece, g1 = g4_min_int(g0 + job->per_piece, w->groups);
    g4_geglu_groups(job->e, g4_row(job->h, job->t0), job->h->x_stride, w, job->x, job->t0, job->n, g0, g1,
                    job->e->scratch.worker + (size_t)worker * job->e->scratch.worker_floats);
}

typedef struct {
    const g4_engine *e;
    const g4_acts *a;
    int t0, cols;
} g4_ready;

static void g4_ready_piece(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_ready *job = ctx;
    g4_acts_ready(job->e, job->a, job->t0 + piece, job->cols);
}

static void g4_acts_ready_all(g4_engine *e, const g4_acts *a, int t0, int n, int cols)
{
    g4_ready job = { e, a, t0, cols };
    g4_parallel_for(e->pool, n - t0, g4_ready_piece, &job);
}

/* out[t] = down(gelu(gate x) * up x): the dense MLP, for tokens [t0, n). */
static void g4_mlp_run(g4_engine *e, const g4_layer *layer, float *out, int t0, int n)
{
    g4_scratch *b = &e->scratch;
    const g4_acts h = g4_acts_as(&b->wide, (int)layer->cfg.mlp_dim);
    g4_mlp job = { e, layer, &b->normed, &h, t0, n, g4_geglu_per_piece(e, &layer->gate_up, n - t0), 0 };
    job.pieces = (layer->gate_up.groups + job.per_piece - 1) / job.per_piece;
    g4_parallel_for(e->pool, job.pieces, g4_mlp_piece, &job);
    g4_acts_ready_all(e, &h, t0, n, (int)layer->cfg.mlp_dim);
    g4_matmul(e, out, b->normed.x_stride, &layer->down, &h, t0, n);
}

/* Router: softmax over all experts of router(norm(x) * router_scale * hidden^-0.5), the best n_experts_used of them,
 * their weights renormalised and multiplied by expert_scale (Gemma4TextRouter). Leaves them by ascending expert id:
 * the order of the reference's sum. */
static void g4_route_choose(const g4_engine *e, const g4_layer *layer, int t)
{
    const g4_scratch *b = &e->scratch;
    const int n = (int)e->file.config.n_experts, used = (int)e->file.config.n_experts_used;
    float *p = b->route + (size_t)t * g4_round_up((size_t)n, 16);
    int *expert = b->expert + (size_t)t * (size_t)used;
    float *gain = b->gain + (size_t)t * (size_t)used;
    float most = p[0], total = 0;
    for (int i = 1; i < n; i++) most = fmaxf(most, p[i]);
    for (int i = 0; i < n; i++) {
        p[i] = expf(p[i] - most);
        total += p[i];
    }
    for (int i = 0; i < n; i++) p[i] /= total;
    for (int k = 0; k < used; k++) { /* insertion into a list sorted by probability, ties to the lower id */
        int best = -1;
        for (int i = 0; i < n; i++) {
            int taken = 0;
            for (int j = 0; j < k; j++) taken |= expert[j] == i;
            if (!taken && (best < 0 || p[i] > p[best])) best = i;
        }
        expert[k] = best;
        gain[k] = p[best];
    }
    float sum = 0;
    for (int k = 0; k < used; k++) sum += gain[k];
    for (int k = 0; k < used; k++) gain[k] = gain[k] / sum * layer->expert_scale[expert[k]];
    for (int k = 1; k < used; k++) { /* by id */
        const int id = expert[k];
        const float g = gain[k];
        int j = k;
        for (; j > 0 && expert[j - 1] > id; j--) {
            expert[j] = expert[j - 1];
            gain[j] = gain[j - 1];
        }
        expert[j] = id;
        gain[j] = g;
    }
}

typedef struct {
    g4_engine *e;
    const g4_layer *layer;
    int t0, n;
    g4_acts in, h;         /* gathered inputs; hidden layer of the experts */
    const int *active;     /* experts that have rows */
    int per_piece, pieces; /* of one expert */
} g4_moe;

static void g4_moe_router_input(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_moe *job = ctx;
    const g4_config *c = &job->e->file.config;
    const int t = job->t0 + piece, h = (int)c->hidden;
    float *y = g4_row(&job->e->scratch.wide, t);
    job->e->kernels->rmsnorm(y, job->e->scratch.x + (size_t)t * job->e->scratch.normed.x_stride,
                             job->layer->router_scale, h, c->eps);
    const float scale = 1.0f / sqrtf((float)h);
    for (int i = 0; i < h; i++) y[i] *= scale;
    memset(y + h, 0, (job->e->scratch.normed.x_stride - (size_t)h) * sizeof *y);
}

static void g4_moe_choose(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_moe *job = ctx;
    g4_route_choose(job->e, job->layer, job->t0 + piece);
}

/* The experts read the stream through a norm of their own; every (token, expert) has a row in the gathered buffer,
 * grouped by expert. */
static void g4_moe_gather(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_moe *job = ctx;
    const g4_engine *e = job->e;
    const int t = job->t0 + piece, used = (int)e->file.config.n_experts_used, h = (int)e->file.config.hidden;
    for (int k = 0; k < used; k++) {
        const int slot = e->scratch.slot[t * used + k];
        e->kernels->rmsnorm(g4_row(&job->in, slot), e->scratch.x + (size_t)t * e->scratch.normed.x_stride,
                            job->layer->moe_norm, h, e->file.config.eps);
        g4_acts_ready(e, &job->in, slot, h);
    }
}

static void g4_moe_up_piece(void *ctx, int piece, int worker)
{
    const g4_moe *job = ctx;
    const int x = job->active[piece / job->pieces];
    const int *first = job->e->scratch.expert_first;
    g4_matrix w = job->layer->experts_gate_up;
    w.data += (size_t)x * job->layer->gate_up_bytes;
    const int g0 = piece % job->pieces * job->per_piece, g1 = g4_min_int(g0 + job->per_piece, w.groups);
    g4_geglu_groups(job->e, g4_row(&job->h, first[x]), job->h.x_stride, &w, &job->in, first[x], first[x + 1], g0, g1,
                    job->e->scratch.worker + (size_t)worker * job->e->scratch.worker_floats);
}

static void g4_moe_down_piece(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_moe *job = ctx;
    const int x = job->active[piece / job->pieces];
    const g4_scratch *b = &job->e->scratch;
    g4_matrix w = job->layer->experts_down;
    w.data += (size_t)x * job->layer->down_bytes;
    const int g0 = piece % job->pieces * job->per_piece, g1 = g4_min_int(g0 + job->per_piece, w.groups);
    float *y = b->expert_out + (size_t)b->expert_first[x] * b->normed.x_stride + 16 * (size_t)g0;
    job->e->kernels->gemm[w.type](y, b->normed.x_stride, &w, &job->h, b->expert_first[x], b->expert_first[x + 1], g0,
                                  g1);
}

static void g4_moe_combine(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_moe *job = ctx;
    const g4_scratch *b = &job->e->scratch;
    const g4_config *c = &job->e->file.config;
    const int t = job->t0 + piece, used = (int)c->n_experts_used, h = (int)c->hidden;
    float *sum = g4_row(&b->wide, t), *out = b->out + (size_t)t * b->normed.x_stride,
          *dense = b->dense + (size_t)t * b->normed.x_stride;
    memset(sum, 0, (size_t)h * sizeof *sum);
    for (int k = 0; k < used; k++) {
        const float *y = b->expert_out + (size_t)b->slot[t * used + k] * b->normed.x_stride, g = b->gain[t * used + k];
        for (int i = 0; i < h; i++) sum[i] += g * y[i];
    }
    job->e->kernels->rmsnorm(sum, sum, job->layer->mlp_post_norm2, h, c->eps);
    job->e->kernels->rmsnorm(dense, dense, job->layer->mlp_post_norm1, h, c->eps);
    for (int i = 0; i < h; i++) out[i] = dense[i] + sum[i];
}

/* out = post_1(dense MLP) + post_2(sum of the chosen experts), Gemma4TextDecoderLayer with enable_moe_block. The
 * router and the experts read the residual stream, not the dense branch's norm. Prompts go expert by expert, so each
 * expert's weights are read once. */
static void g4_moe_run(g4_engine *e, const g4_layer *layer, int t0, int n)
{
    g4_scratch *b = &e->scratch;
    const g4_config *c = &e->file.config;
    const int used = (int)c->n_experts_used, n_experts = (int)c->n_experts;
    g4_mlp_run(e, layer, b->dense, t0, n);
    g4_moe job = { e, layer, t0, n, b->gathered, g4_acts_as(&b->expert_hidden, (int)c->expert_dim), NULL, 0, 0 };
    g4_parallel_for(e->pool, n - t0, g4_moe_router_input, &job);
    g4_matmul(e, b->route, g4_round_up((size_t)n_experts, 16), &layer->router, &b->wide, t0, n);
    g4_parallel_for(e->pool, n - t0, g4_moe_choose, &job);

    int *first = b->expert_first, *active = first + n_experts + 1, n_active = 0, rows = 0;
    for (int x = 0; x < n_experts; x++) { /* rows of expert x: (token, slot) pairs in token order */
        first[x] = rows;
        for (int i = t0 * used; i < n * used; i++)
            if (b->expert[i] == x) b->slot[i] = rows++;
        if (rows > first[x]) active[n_active++] = x;
    }
    first[n_experts] = rows;
    job.active = active;
    g4_parallel_for(e->pool, n - t0, g4_moe_gather, &job);

    job.per_piece = g4_geglu_per_piece(e, &layer->experts_gate_up, rows / g4_max_int(n_active, 1));
    job.pieces = (layer->experts_gate_up.groups + job.per_piece - 1) / job.per_piece;
    g4_parallel_for(e->pool, n_active * job.pieces, g4_moe_up_piece, &job);
    g4_acts_ready_all(e, &job.h, 0, rows, (int)c->expert_dim);
    job.per_piece = g4_piece_groups(e, &layer->experts_down, rows / g4_max_int(n_active, 1));
    job.pieces = (layer->experts_down.groups + job.per_piece - 1) / job.per_piece;
    g4_parallel_for(e->pool, n_active * job.pieces, g4_moe_down_piece, &job);
    g4_parallel_for(e->pool, n - t0, g4_moe_combine, &job);
}

/* ---- 10. Text decoder -----------------------------------------------------------------------------
 *
 * In: token ids (and soft tokens) at positions pos.. of a session. Out: keys and values in its pages, and the final
 * hidden states of the last n_full tokens. A token whose logits nobody asked for stops at the last layer that owns
 * keys and values, and needs only K and V there.
 *
 * Residual order (Gemma4TextDecoderLayer): norm, attention, norm, add; norm, MLP, norm, add; per-layer input block;
 * times layer_scalar. */

typedef struct { /* one chunk on its way through the layers */
    g4_engine *e;
    g4_session *s;
    const g4_token *tokens; /* (n) */
    int pos, n, n_full;
    int t0; /* first token still on its way */
    const g4_layer *layer;
    int t1, ple_layers; /* per-layer inputs of tokens [t0, t1) for layers [0, ple_layers) */
    int kv_only_before; /* tokens before this one need no query */
} g4_chunk;

/* A placeholder id reads as pad in both tables (Gemma4Model masks placeholders before the embedding). */
static int g4_lookup_id(const g4_config *c, g4_token id)
{
    const uint32_t u = (uint32_t)id;
    const int placeholder = (c->image_token && u == c->image_token) || (c->audio_token && u == c->audio_token) ||
                            (c->video_token && u == c->video_token);
    return placeholder ? (int)c->pad : id;
}

static void g4_embed_piece(void *ctx, int t, int worker)
{
    (void)worker;
    const g4_chunk *j = ctx;
    const g4_scratch *b = &j->e->scratch;
    const g4_config *c = &j->e->file.config;
    float *x = b->x + (size_t)t * b->normed.x_stride;
    if (b->soft[t]) {
        memcpy(x, b->soft[t], c->hidden * sizeof *x); /* soft tokens are not scaled */
    } else {
        const int id = g4_lookup_id(c, j->tokens[t]);
        if (c->flags & G4_CONFIG_TIED)
            g4_matrix_row(x, &j->e->weights.head, id);
        else
            g4_table_row(x, &j->e->weights.embed, id, 0, (int)c->hidden);
        for (uint32_t i = 0; i < c->hidden; i++) x[i] *= c->embed_scale;
    }
    memcpy(g4_row(&b->normed, t), x, c->hidden * sizeof *x);
    g4_acts_ready(j->e, &b->normed, t, (int)c->hidden);
    for (int full = 0; full < 2; full++) {
        const float *inverse = j->e->weights.rope[full];
        const int half = j->e->weights.rope_half[full];
        for (int i = 0; i < half; i++) {
            const float angle = (float)(j->pos + t) * inverse[i]; /* in float32, as the reference */
            b->cos[full][(size_t)t * (size_t)b->rope_cols + (size_t)i] = cosf(angle);
            b->sin[full][(size_t)t * (size_t)b->rope_cols + (size_t)i] = sinf(angle);
        }
    }
}

/* Per-layer inputs: (norm(projection of the embeddings * hidden^-0.5) + row of the big table * sqrt(dim)) * 2^-0.5,
 * layer by layer with one norm weight (Gemma4TextModel.project_per_layer_inputs). Soft tokens read the pad row. */
static void g4_ple_piece(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_chunk *j = ctx;
    const g4_scratch *b = &j->e->scratch;
    const g4_config *c = &j->e->file.config;
    const int t = j->t0 + piece, dim = (int)c->ple_dim, id = b->soft[t] ? (int)c->pad : g4_lookup_id(c, j->tokens[t]);
    const float in_scale = 1.0f / sqrtf((float)c->hidden), table_scale = sqrtf((float)dim), half = 0.70710678118654752f;
    for (int l = 0; l < j->ple_layers; l++) {
        float *y = b->ple + (size_t)t * (size_t)b->ple_cols + (size_t)(l * dim), row[G4_MAX_PLE_DIM];
        for (int i = 0; i < dim; i++) y[i] *= in_scale;
        j->e->kernels->rmsnorm(y, y, j->e->weights.ple_norm, dim, c->eps);
        g4_table_row(row, &j->e->weights.ple_embed, id, l * dim, dim);
        for (int i = 0; i < dim; i++) y[i] = (y[i] + row[i] * table_scale) * half;
    }
}

static void g4_ple_inputs(g4_chunk *j, int t0, int t1, int n_layers)
{
    if (t0 >= t1 || n_layers == 0) return;
    g4_scratch *b = &j->e->scratch;
    g4_products job = { .e = j->e, .x = &b->normed };
    const int groups = (n_layers * (int)j->e->file.config.ple_dim + 15) / 16;
    g4_products_add(&job, &j->e->weights.ple_in, b->ple + (size_t)t0 * (size_t)b->ple_cols, (size_t)b->ple_cols, t0, t1,
                    0, groups);
    g4_parallel_for(j->e->pool, job.n_pieces, g4_products_piece, &job);
    g4_chunk part = *j;
    part.t0 = t0;
    part.ple_layers = n_layers;
    g4_parallel_for(j->e->pool, t1 - t0, g4_ple_piece, &part);
}

/* x[i], x[i + half] rotate by the angle of pair i. */
static void g4_rope(float *x, const float *cosine, const float *sine, int half)
{
    for (int i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = a * cosine[i] - b * sine[i];
        x[i + half] = b * cosine[i] + a * sine[i];
    }
}

/* After the projections: per head norm with weight (q, k) or without (v), RoPE on q and k, scale on q, keys and
 * values to their page. */
static void g4_heads_piece(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_chunk *j = ctx;
    const g4_layer *w = j->layer;
    const g4_scratch *b = &j->e->scratch;
    const g4_config *c = &j->e->file.config;
    const g4_kernels *kernels = j->e->kernels;
    const int t = j->t0 + piece, dim = (int)w->cfg.head_dim, full = (int)(w->cfg.flags & G4_LAYER_FULL);
    const float *cosine = b->cos[full] + (size_t)t * (size_t)b->rope_cols,
                *sine = b->sin[full] + (size_t)t * (size_t)b->rope_cols;
    if (w->has_kv) {
        float *k = b->k + (size_t)t * (size_t)b->kv_cols, *v = b->v + (size_t)t * (size_t)b->kv_cols;
        for (int h = 0; h < (int)w->cfg.n_kv_heads; h++, k += dim, v += dim) {
            if (w->cfg.flags & G4_LAYER_K_EQ_V) memcpy(v, k, (size_t)dim * sizeof *v);
            if (c->flags & G4_CONFIG_V_NORM) kernels->rmsnorm(v, v, NULL, dim, c->eps);
            kernels->rmsnorm(k, k, w->k_norm, dim, c->eps);
            g4_rope(k, cosine, sine, dim / 2);
        }
        g4_cache_store(&j->s->caches[w->slot], j->s->kv, j->pos + t, b->k + (size_t)t * (size_t)b->kv_cols,
                       b->v + (size_t)t * (size_t)b->kv_cols);
    }
    if (t < j->kv_only_before) return;
    float *q = b->q + (size_t)t * (size_t)b->q_cols;
    for (int h = 0; h < (int)c->n_heads; h++, q += dim) {
        kernels->rmsnorm(q, q, w->q_norm, dim, c->eps);
        g4_rope(q, cosine, sine, dim / 2);
        if (c->attn_scale != 1.0f)
            for (int i = 0; i < dim; i++) q[i] *= c->attn_scale;
    }
}

/* x += norm(out) with the weight of the block that has just ended. */
static void g4_add_normed(const g4_chunk *j, int t, const float *weight)
{
    const g4_scratch *b = &j->e->scratch;
    const g4_config *c = &j->e->file.config;
    float *x = b->x + (size_t)t * b->normed.x_stride, *out = b->out + (size_t)t * b->normed.x_stride;
    j->e->kernels->rmsnorm(out, out, weight, (int)c->hidden, c->eps);
    for (uint32_t i = 0; i < c->hidden; i++) x[i] += out[i];
}

/* normed = norm(x), ready to be multiplied; weight NULL: x itself. */
static void g4_norm_input(const g4_chunk *j, int t, const float *weight)
{
    const g4_scratch *b = &j->e->scratch;
    const g4_config *c = &j->e->file.config;
    const float *x = b->x + (size_t)t * b->normed.x_stride;
    if (weight)
        j->e->kernels->rmsnorm(g4_row(&b->normed, t), x, weight, (int)c->hidden, c->eps);
    else
        memcpy(g4_row(&b->normed, t), x, c->hidden * sizeof *x);
    g4_acts_ready(j->e, &b->normed, t, (int)c->hidden);
}

/* The steps between two products, one token a piece. */
static void g4_layer_begin(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_chunk *j = ctx;
    g4_norm_input(j, j->t0 + piece, j->layer->attn_norm);
}

static void g4_after_attention(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_chunk *j = ctx;
    g4_add_normed(j, j->t0 + piece, j->layer->attn_post_norm);
    g4_norm_input(j, j->t0 + piece, j->layer->mlp_norm);
}

static void g4_after_mlp(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_chunk *j = ctx;
    g4_add_normed(j, j->t0 + piece, j->layer->mlp_post_norm);
    if (j->e->file.config.ple_dim) g4_norm_input(j, j->t0 + piece, NULL);
}

static void g4_ple_gate_piece(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_chunk *j = ctx;
    const g4_scratch *b = &j->e->scratch;
    const int t = j->t0 + piece, dim = (int)j->e->file.config.ple_dim, l = (int)(j->layer - j->e->weights.layers);
    const g4_acts gate = g4_acts_as(&b->wide, dim);
    float *g = g4_row(&gate, t);
    j->e->kernels->geglu(g, g, b->ple + (size_t)t * (size_t)b->ple_cols + (size_t)(l * dim), dim);
    g4_acts_ready(j->e, &gate, t, dim);
}

static void g4_after_ple(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_chunk *j = ctx;
    g4_add_normed(j, j->t0 + piece, j->layer->ple_norm);
}

static void g4_layer_end(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_chunk *j = ctx;
    float *x = j->e->scratch.x + (size_t)(j->t0 + piece) * j->e->scratch.normed.x_stride;
    for (uint32_t i = 0; i < j->e->file.config.hidden; i++) x[i] *= j->layer->scalar;
}

static void g4_each_token(g4_chunk *j, g4_piece_fn fn) { g4_parallel_for(j->e->pool, j->n - j->t0, fn, j); }

/* One layer for tokens [t0, n). Returns 0 when nothing is left to do: nobody reads these tokens' logits. */
static int g4_layer_run(g4_chunk *j, int l)
{
    g4_engine *e = j->e;
    g4_scratch *b = &e->scratch;
    const g4_config *c = &e->file.config;
    const g4_layer *w = j->layer = &e->weights.layers[l];
    const int first_full = j->n - j->n_full;
    j->kv_only_before = l == e->last_owner ? first_full : j->t0;

    g4_each_token(j, g4_layer_begin);
    g4_products qkv = { .e = e, .x = &b->normed };
    g4_products_add(&qkv, &w->q, b->q + (size_t)j->kv_only_before * (size_t)b->q_cols, (size_t)b->q_cols,
                    j->kv_only_before, j->n, 0, w->q.groups);
    if (w->has_kv) {
        const size_t at = (size_t)j->t0 * (size_t)b->kv_cols;
        g4_products_add(&qkv, &w->k, b->k + at, (size_t)b->kv_cols, j->t0, j->n, 0, w->k.groups);
        g4_products_add(&qkv, &w->v, b->v + at, (size_t)b->kv_cols, j->t0, j->n, 0, w->v.groups);
    }
    g4_parallel_for(e->pool, qkv.n_pieces, g4_products_piece, &qkv);
    g4_each_token(j, g4_heads_piece);
    j->t0 = j->kv_only_before;
    if (j->t0 == j->n) return 0;

    const int q_cols = (int)(c->n_heads * w->cfg.head_dim);
    b->wide = g4_acts_as(&b->wide, q_cols);
    g4_attention_run(e, j->s, w, j->pos, j->t0, j->n);
    g4_acts_ready_all(e, &b->wide, j->t0, j->n, q_cols);
    g4_matmul(e, b->out, b->normed.x_stride, &w->o, &b->wide, j->t0, j->n);
    g4_each_token(j, g4_after_attention);

    if (w->cfg.flags & G4_LAYER_MOE) {
        b->wide = g4_acts_as(&b->wide, (int)c->hidden);
        g4_moe_run(e, w, j->t0, j->n);
    } else {
        g4_mlp_run(e, w, b->out, j->t0, j->n);
    }
    g4_each_token(j, g4_after_mlp);

    if (c->ple_dim) {
        const g4_acts gate = g4_acts_as(&b->wide, (int)c->ple_dim);
        g4_matmul(e, g4_row(&gate, 0), gate.x_stride, &w->ple_gate, &b->normed, j->t0, j->n);
        g4_each_token(j, g4_ple_gate_piece);
        g4_matmul(e, b->out, b->normed.x_stride, &w->ple_proj, &gate, j->t0, j->n);
        g4_each_token(j, g4_after_ple);
    }
    if (w->cfg.flags & G4_LAYER_SCALAR) g4_each_token(j, g4_layer_end);
    return 1;
}

/* The visible future and the soft token of each position of a chunk. */
static void g4_chunk_media(const g4_chunk *j)
{
    const g4_scratch *b = &j->e->scratch;
    const g4_config *c = &j->e->file.config;
    for (int t = 0; t < j->n; t++) {
        b->soft[t] = NULL;
        b->see[t] = j->pos + t;
    }
    int block_end = 0; /* of the two-way block that the last run belongs to; adjacent runs are one block */
    for (int i = j->s->n_runs - 1; i >= 0; i--) {
        const g4_run *r = &j->s->runs[i];
        const int end = r->pos + r->soft->n;
        const int two_way = (c->flags & G4_CONFIG_IMAGE_BIDIR) && (uint32_t)r->soft->token != c->audio_token;
        const int joined = i + 1 < j->s->n_runs && j->s->runs[i + 1].pos == end && block_end > 0;
        block_end = !two_way ? 0 : joined ? block_end : end;
        for (int p = g4_max_int(r->pos, j->pos); p < end && p < j->pos + j->n; p++) {
            b->soft[p - j->pos] = r->soft->rows + (size_t)(p - r->pos) * c->hidden;
            if (two_way) b->see[p - j->pos] = block_end - 1;
        }
    }
}

/* Run the chunk; its pages exist. Afterwards x holds the final states of the last n_full tokens. */
static void g4_forward(g4_chunk *j)
{
    g4_engine *e = j->e;
    const g4_config *c = &e->file.config;
    const int first_full = j->n - j->n_full;
    g4_chunk_media(j);
    j->t0 = 0;
    g4_parallel_for(e->pool, j->n, g4_embed_piece, j);
    if (c->ple_dim) {
        g4_ple_inputs(j, 0, first_full, e->last_owner);
        g4_ple_inputs(j, first_full, j->n, (int)c->n_layers);
    }
    for (int l = 0; l < (int)c->n_layers; l++)
        if (!g4_layer_run(j, l)) return;
}

typedef struct {
    const g4_engine *e;
    float *logits;
} g4_softcap_job;

/* Softcap: cap * tanh(x / cap), a range of the vocabulary a piece. */
#define G4_SOFTCAP_PIECE 4096
static void g4_softcap_piece(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_softcap_job *job = ctx;
    const g4_config *c = &job->e->file.config;
    const int from = piece * G4_SOFTCAP_PIECE, to = g4_min_int(from + G4_SOFTCAP_PIECE, (int)c->n_vocab);
    job->e->kernels->softcap(job->logits + from, to - from, c->softcap);
}

static void g4_softcap_run(const g4_engine *e, float *logits)
{
    const g4_config *c = &e->file.config;
    g4_softcap_job job = { e, logits };
    if (c->softcap == 0) return;
    g4_parallel_for(e->pool, ((int)c->n_vocab + G4_SOFTCAP_PIECE - 1) / G4_SOFTCAP_PIECE, g4_softcap_piece, &job);
}

typedef struct {
    const g4_chunk *chunk;
    int first;
    g4_products product;
    float *group_max; /* or NULL */
} g4_head;

static void g4_head_input(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_head *job = ctx;
    g4_norm_input(job->chunk, job->first + piece, job->chunk->e->weights.norm);
}

/* The largest of a group's logits, as far as the vocabulary goes; four running maxima, so that they are one vector. */
static float g4_group_max(const float *logits, int n)
{
    float most[4] = { -INFINITY, -INFINITY, -INFINITY, -INFINITY };
    for (int i = 0; i + 4 <= n; i += 4)
        for (int k = 0; k < 4; k++) most[k] = logits[i + k] > most[k] ? logits[i + k] : most[k];
    for (int i = n / 4 * 4; i < n; i++) most[0] = logits[i] > most[0] ? logits[i] : most[0];
    for (int k = 1; k < 4; k++) most[0] = most[k] > most[0] ? most[k] : most[0];
    return most[0];
}

static void g4_head_piece(void *ctx, int piece, int worker)
{
    g4_head *job = ctx;
    g4_products_piece(&job->product, piece, worker);
    if (!job->group_max) return;
    const int n_vocab = (int)job->chunk->e->file.config.n_vocab, per_piece = job->product.p[0].per_piece;
    const float *logits = job->product.p[0].y;
    for (int g = piece * per_piece; g < g4_min_int((piece + 1) * per_piece, job->product.p[0].g1); g++)
        job->group_max[g] = g4_group_max(logits + 16 * (size_t)g, g4_min_int(16, n_vocab - 16 * g));
}

/* Softcapped logits (rows of `stride`) of tokens [first, first + n) of the chunk, whose final states are in x. With
 * group_max those of one token, not softcapped, and the largest of each group, noted while they are in cache. */
static void g4_logits_run(const g4_chunk *j, int first, int n, float *logits, size_t stride, float *group_max)
{
    g4_engine *e = j->e;
    g4_head job = { j, first, { .e = e, .x = &e->scratch.normed }, group_max };
    g4_parallel_for(e->pool, n, g4_head_input, &job);
    g4_products_add(&job.product, &e->weights.head, logits, stride, first, first + n, 0, e->weights.head.groups);
    g4_parallel_for(e->pool, job.product.n_pieces, g4_head_piece, &job);
    for (int i = 0; i < n && !group_max; i++) g4_softcap_run(e, logits + (size_t)i * stride);
}

typedef struct {
    const g4_chunk *chunk;
    float *logits;
    int *group; /* (n) */
    int n, per_piece;
} g4_head_some;

static void g4_head_some_piece(void *ctx, int piece, int worker)
{
    (void)worker;
    const g4_head_some *job = ctx;
    const g4_engine *e = job->chunk->e;
    const g4_matrix *w = &e->weights.head;
    const g4_config *c = &e->file.config;
    for (int i = piece * job->per_piece; i < g4_min_int((piece + 1) * job->per_piece, job->n); i++) {
        const int row = 16 * job->group[i];
        e->kernels->gemm[w->type](job->logits + row, 16, w, &e->scratch.normed, 0, 1, job->group[i], job->group[i] + 1);
        if (c->softcap != 0)
            e->kernels->softcap(job->logits + row, g4_min_int(16, (int)c->n_vocab - row), c->softcap);
    }
}

/* ---- 11. Vision ------------------------------------------------------------------------------------
 *
 * In: a picture as patches of 16 x 16 pixels, row by row (g4_image_patches); n of them, at most 10,080. Out: one soft
 * token of the text model's width for each 3 x 3 patches. MODEL.md, "Vision tower". Patch projection + learned 2-D
 * position; layers of attention (every patch sees every patch, no mask) and gated MLP; mean over 3 x 3; standardize
 * (26B, 31B); weightless norm; projection. E2B and E4B clip the inputs and outputs of the linears of the layers.
 *
 * A piece of work is a tile of 64 patches, which is also one tile of keys and values. Three passes make a layer:
 * queries, keys and values of all tiles; attention, where a piece is one head for a group of tiles; everything else of
 * a tile with activations that stay in cache. So memory beyond x, q, k, v and what attention saw does not grow with n.
 */

#define G4_TOWER_TILE G4_PAGE /* tokens of a piece of work */
#define G4_VISION_QUERIES (4 * G4_TOWER_TILE) /* that use a tile of keys and values while it is in L2 */

/* Gemma4ClippableLinear: y = clamp(w . clamp(x, b0, b1), b2, b3), no bias. */
typedef struct {
    g4_matrix w;
    const float *bounds; /* (4): input min, max, output min, max; NULL: all infinite */
} g4_linear;

typedef struct {
    const float *attn_norm, *attn_post_norm, *mlp_norm, *mlp_post_norm; /* (hidden) */
    const float *q_norm, *k_norm;                                       /* (head_dim) */
    g4_linear q, k, v, o, gate, up, down;
} g4_vision_layer;

typedef struct g4_vision {
    g4_linear patch, proj;             /* (hidden, 3 * patch^2), (text hidden, hidden); never clipped */
    g4_table pos;                      /* (2 * n_pos, hidden): x rows, then y rows */
    const float *std_bias, *std_scale; /* (hidden), or NULL */
    g4_vision_layer *layers;
} g4_vision;

/* A float32 array of two dimensions. */
static const float *g4_bind_array(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t rows,
                                  uint64_t cols)
{
    const g4_tensor_entry *t = g4_bind(b, prefix, layer, field, G4_LAYOUT_PLAIN, 2, rows, cols, 1);
    return t ? (const float *)(const void *)(b->file->data + t->offset) : NULL;
}

/* A linear of a layer; bounds: the four numbers of this one, those that bound nothing being +-FLT_MAX. */
static g4_linear g4_bind_linear(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t rows,
                                uint64_t cols, const float *bounds)
{
    g4_linear l = { g4_bind_matrix(b, prefix, layer, field, rows, cols), NULL };
    if (bounds && (bounds[0] > -FLT_MAX || bounds[1] < FLT_MAX || bounds[2] > -FLT_MAX || bounds[3] < FLT_MAX))
        l.bounds = bounds;
    return l;
}

/* Bind the tensors of the vision tower; e->vision stays NULL when the file has none. */
static void g4_vision_bind(g4_engine *e, g4_binder *b)
{
    const g4_config *c = &e->file.config;
    const uint64_t h = c->v_hidden, all = (uint64_t)c->v_heads * c->v_head_dim, mlp = c->v_mlp;
    if (c->v_layers == 0 || b->status) return;
    g4_vision *v = e->vision = g4_alloc(e->a, 1, sizeof *v);
    if (v) v->layers = g4_alloc(e->a, c->v_layers, sizeof *v->layers);
    if (!v || !v->layers) {
        b->status = g4_fail(b->err, G4_ERR_MEMORY, "no memory for the vision tower");
        return;
    }
    v->patch = g4_bind_linear(b, "v.patch", -1, "", h, 3 * (uint64_t)c->v_patch * c->v_patch, NULL);
    v->pos = g4_bind_table(b, "v.pos", -1, "", 2 * (uint64_t)c->v_n_pos, h);
    for (int l = 0; l < (int)c->v_layers; l++) {
        g4_vision_layer *w = &v->layers[l];
        const float *bounds = g4_bind_array(b, "v", l, "bounds", 7, 4);
        if (b->status) return;
        w->attn_norm = g4_bind_vector(b, "v", l, "attn_norm", h);
        w->attn_post_norm = g4_bind_vector(b, "v", l, "attn_post_norm", h);
        w->mlp_norm = g4_bind_vector(b, "v", l, "mlp_norm", h);
        w->mlp_post_norm = g4_bind_vector(b, "v", l, "mlp_post_norm", h);
        w->q_norm = g4_bind_vector(b, "v", l, "q_norm", c->v_head_dim);
        w->k_norm = g4_bind_vector(b, "v", l, "k_norm", c->v_head_dim);
        w->q = g4_bind_linear(b, "v", l, "q", all, h, bounds);
        w->k = g4_bind_linear(b, "v", l, "k", all, h, bounds + 4);
        w->v = g4_bind_linear(b, "v", l, "v", all, h, bounds + 8);
        w->o = g4_bind_linear(b, "v", l, "o", h, all, bounds + 12);
        w->gate = g4_bind_linear(b, "v", l, "gate", mlp, h, bounds + 16);
        w->up = g4_bind_linear(b, "v", l, "up", mlp, h, bounds + 20);
        w->down = g4_bind_linear(b, "v", l, "down", h, mlp, bounds + 24);
    }
    if (c->v_flags & G4_VISION_STANDARDIZE) {
        v->std_bias = g4_bind_vector(b, "v.std_bias", -1, "", h);
        v->std_scale = g4_bind_vector(b, "v.std_scale", -1, "", h);
    }
    v->proj = g4_bind_linear(b, "v.proj", -1, "", c->hidden, h, NULL);
}

/* Floats from one token's row to the next: not a multiple of 4 KB, where a load waits for a store to the same place of
 * another row. */
static size_t g4_tower_stride(size_t cols)
{
    const size_t stride = g4_round_up(cols, 16);
    return stride % 512 == 0 ? stride + 16 : stride;
}

/* What one worker needs for the linears of a tile. */
typedef struct {
    float *x;     /* (TILE, pad64(cols)): clamped, zero-padded input */
    int16_t *x16; /* (TILE, pad64(cols)): in units of its token, as g4_product16_fn says */
    float *unit;  /* (TILE) */
    int8_t *q;    /* (TILE, pad64(cols)) */
    float *d;     /* (TILE, pad64(cols) / 32) */
    int32_t *sum; /* likewise */
} g4_linear_work;

static int g4_linear_work_open(g4_linear_work *w, const g4_allocator *a, int max_cols)
{
    size_t cols = g4_round_up((size_t)max_cols, 64);
    w->x = g4_alloc(a, G4_TOWER_TILE * cols, sizeof *w->x);
    w->x16 = g4_alloc(a, G4_TOWER_TILE * cols, sizeof *w->x16);
    w->unit = g4_alloc(a, G4_TOWER_TILE, sizeof *w->unit);
    w->q = g4_alloc(a, G4_TOWER_TILE * cols, sizeof *w->q);
    w->d = g4_alloc(a, G4_TOWER_TILE * cols / 32, sizeof *w->d);
    w->sum = g4_alloc(a, G4_TOWER_TILE * cols / 32, sizeof *w->sum);
    return w->x && w->x16 && w->unit && w->q && w->d && w->sum;
}

static void g4_linear_work_close(g4_linear_work *w, const g4_allocator *a)
{
    g4_free(a, w->x);
    g4_free(a, w->x16);
    g4_free(a, w->unit);
    g4_free(a, w->q);
    g4_free(a, w->d);
    g4_free(a, w->sum);
}

static void g4_clamp_row(float *x, size_t n, float lo, float hi)
{
    for (size_t i = 0; i < n; i++) x[i] = g4_clamp(x[i], lo, hi);
}

/* How a linear reads its inputs. */
static g4_reads g4_linear_reads(const g4_kernels *kernels, const g4_linear *l)
{
    return kernels->product16[l->w.type] ? G4_READS_INT16 : g4_type_get(l->w.type)->reads;
}

/* What l reads of x (n, x_stride), n <= TILE tokens: clamped, padded, as integers if that is how it reads. */
static void g4_linear_read(const g4_kernels *kernels, g4_linear_work *work, const g4_linear *l, const float *x,
                           size_t x_stride, int n)
{
    const size_t cols = (size_t)l->w.cols, padded = (size_t)l->w.steps * 64;
    const g4_reads reads = g4_linear_reads(kernels, l);
    for (size_t t = 0; t < (size_t)n; t++) {
        float *row = work->x + (reads == G4_READS_FLOAT ? t * padded : 0); /* the others are done with it at once */
        memcpy(row, x + t * x_stride, cols * sizeof *row);
        memset(row + cols, 0, (padded - cols) * sizeof *row);
        if (l->bounds) g4_clamp_row(row, cols, l->bounds[0], l->bounds[1]);
        if (reads == G4_READS_INT8)
            kernels->quantize(work->q + t * padded, work->d + t * padded / 32, work->sum + t * padded / 32, row,
                              (int)padded);
        if (reads == G4_READS_INT16) kernels->quantize16(work->x16 + t * padded, work->unit + t, row, (int)padded);
    }
}

/* Whether b finds what was read for a of the same x. */
static int g4_linear_reads_alike(const g4_kernels *kernels, const g4_linear *a, const g4_linear *b)
{
    if (a->w.cols != b->w.cols || g4_linear_reads(kernels, a) != g4_linear_reads(kernels, b)) return 0;
    if (!a->bounds || !b->bounds) return !a->bounds && !b->bounds;
    return a->bounds[0] == b->bounds[0] && a->bounds[1] == b->bounds[1];
}

/* y (n, y_stride) of what was read; y_stride >= pad16(rows). */
static void g4_linear_product(const g4_kernels *kernels, const g4_linear_work *work, const g4_linear *l, float *y,
                              size_t y_stride, int n)
{
    const g4_acts acts = { work->x, (size_t)l->w.steps * 64, work->q, work->d, work->sum, l->w.steps };
    const float least = l->bounds ? l->bounds[2] : -INFINITY, most = l->bounds ? l->bounds[3] : INFINITY;
    if (g4_linear_reads(kernels, l) == G4_READS_INT16) {
        kernels->product16[l->w.type](y, y_stride, &l->w, work->x16, work->unit, n, least, most);
        return;
    }
    kernels->gemm[l->w.type](y, y_stride, &l->w, &acts, 0, n, 0, l->w.groups);
    for (size_t t = 0; t < (size_t)n && l->bounds; t++) g4_clamp_row(y + t * y_stride, (size_t)l->w.rows, least, most);
}

/* n <= TILE tokens: x (n, x_stride) to y (n, y_stride). `before` was applied to the same x just before, or is NULL. */
static void g4_linear_apply_after(const g4_linear *before, const g4_kernels *kernels, g4_linear_work *work,
                                  const g4_linear *l, float *y, size_t y_stride, const float *x, size_t x_stride, int n)
{
    if (!before || !g4_linear_reads_alike(kernels, before, l)) g4_linear_read(kernels, work, l, x, x_stride, n);
    g4_linear_product(kernels, work, l, y, y_stride, n);
}

static void g4_linear_apply(const g4_kernels *kernels, g4_linear_work *work, const g4_linear *l, float *y,
                            size_t y_stride, const float *x, size_t x_stride, int n)
{
    g4_linear_apply_after(NULL, kernels, work, l, y, y_stride, x, x_stride, n);
}

typedef struct {
    g4_linear_work linear;
    float *norm;      /* (TILE, hidden) */
    float *wide;      /* (TILE, pad16(max(heads * head_dim, hidden, text hidden))) */
    float *gate, *up; /* (TILE, pad16(mlp)) each, in one allocation */
    float *m, *l, *o; /* (QUERIES), (QUERIES), (QUERIES, pad16(head_dim)): online softmax of a span of keys */
    float *M, *L, *O; /* the same, of the spans so far */
} g4_vision_work;

/* One picture on its way through the tower; shared by the pieces, each of which writes only its own tokens. */
typedef struct {
    g4_engine *e;
    const g4_vision *v;
    const g4_patches *patches;
    const g4_vision_layer *layer;
    int n, tiles, groups; /* patches, in TILEs, in QUERIES */
    size_t wide_stride;
    float *x;             /* (n, hidden): the residual stream */
    float *seen;          /* (n, heads * head_dim): attention output */
    float *q;             /* (heads, tiles * 64, head_dim) */
    float *k;             /* (heads, tiles, head_dim, 64) */
    float *val;           /* (heads, tiles, 64, head_dim) */
    int in16;             /* these instead of q, k and val, as g4_tile16 says: */
    int16_t *q16;         /* (heads, tiles * 64, head_dim) */
    int16_t *k16;         /* (heads, tiles, head_dim / 2, 64, 2) */
    int16_t *val16;       /* (heads, tiles, 32, pad16(head_dim), 2) */
    float *q_unit;        /* (heads, tiles * 64) */
    float *k_unit;        /* (heads, tiles * 64) */
    float v_unit;         /* values have a norm of sqrt(head_dim) at most */
    float *cos_t, *sin_t; /* (longer side, head_dim / 4): angle = position * theta^(-2 i / (head_dim / 2)) */
    float *rows;          /* (tokens, text hidden): the result */
    g4_vision_work *work; /* one per worker */
} g4_vision_run;

/* First and number of tokens of a piece. */
static int g4_tile_span(int piece, int n, int *count)
{
    int t0 = piece * G4_TOWER_TILE;
    *count = g4_min_int(n - t0, G4_TOWER_TILE);
    return t0;
}

/* x = w . 2 (p - 0.5) + (pos_x + pos_y)      Gemma4VisionPatchEmbedder */
static void g4_vision_embed_piece(void *ctx, int piece, int worker)
{
    g4_vision_run *r = ctx;
    g4_vision_work *w = &r->work[worker];
    const g4_config *c = &r->e->file.config;
    size_t hidden = c->v_hidden, values = 3 * (size_t)c->v_patch * c->v_patch;
    int n, t0 = g4_tile_span(piece, r->n, &n);
    for (int t = 0; t < n; t++) {
        const float *p = r->patches->pixels + (size_t)(t0 + t) * values;
        float *row = w->gate + (size_t)t * values; /* gate and up together have room for it: g4_vision_run_open */
        for (size_t i = 0; i < values; i++) row[i] = 2.0f * (p[i] - 0.5f);
    }
    g4_linear_apply(r->e->kernels, &w->linear, &r->v->patch, w->wide, r->wide_stride, w->gate, values, n);
    for (int t = 0; t < n; t++) {
        const int32_t *pos = r->patches->pos + 2 * (size_t)(t0 + t);
        float *x = r->x + (size_t)(t0 + t) * hidden, *pos_x = w->norm, *pos_y = w->norm + hidden;
        g4_table_row(pos_x, &r->v->pos, pos[0], 0, (int)hidden);
        g4_table_row(pos_y, &r->v->pos, (int)c->v_n_pos + pos[1], 0, (int)hidden);
        for (size_t i = 0; i < hidden; i++) x[i] = w->wide[(size_t)t * r->wide_stride + i] + (pos_x[i] + pos_y[i]);
    }
}

/* Rotate the pairs (i, i + h/4) of the first half of a head by the x angle and those of the second half by the y angle;
 * h = head_dim. The reference calls the first of the two "h", but its position is x: apply_multidimensional_rope. */
static void g4_vision_rope(float *x, int head_dim, const float *cos_x, const float *sin_x, const float *cos_y,
                           const float *sin_y)
{
    int quarter = head_dim / 4;
    for (int half = 0; half < 2; half++) {
        const float *co = half ? cos_y : cos_x, *si = half ? sin_y : sin_x;
        float *a = x + half * 2 * quarter, *b = a + quarter;
        for (int i = 0; i < quarter; i++) {
            float a0 = a[i], b0 = b[i];
            a[i] = a0 * co[i] - b0 * si[i];
            b[i] = b0 * co[i] + a0 * si[i];
        }
    }
}

/* The unit of a row of queries or keys: g4_tile16. n is a multiple of 4. */
static float g4_unit16(const float *x, int n)
{
    float squares[4] = { 0 }, most[4] = { 0 };
    for (int i = 0; i < n; i += 4)
        for (int j = 0; j < 4; j++) {
            const float a = fabsf(x[i + j]);
            squares[j] += a * a;
            most[j] = a > most[j] ? a : most[j];
        }
    const float norm = sqrtf(squares[0] + squares[1] + squares[2] + squares[3]);
    const float top = fmaxf(fmaxf(most[0], most[1]), fmaxf(most[2], most[3]));
    return fmaxf(fmaxf(norm / (float)G4_NORM16, top / (float)G4_MAX_FACTOR16), FLT_MIN);
}

enum { G4_QUERY, G4_KEY, G4_VALUE };

/* x (head_dim), what token t of a tile asks, is found by or gives in head h. */
static void g4_vision_store(g4_vision_run *r, int which, size_t h, size_t tile, size_t t, const float *x)
{
    const size_t dim = r->e->file.config.v_head_dim, nth = h * (size_t)r->tiles + tile; /* tile of all heads */
    if (!r->in16) {
        const size_t at = nth * G4_TOWER_TILE * dim;
        if (which == G4_QUERY) memcpy(r->q + at + t * dim, x, dim * sizeof *x);
        if (which == G4_KEY)
            for (size_t i = 0; i < dim; i++) r->k[at + i * G4_TOWER_TILE + t] = x[i];
        if (which == G4_VALUE) memcpy(r->val + at + t * dim, x, dim * sizeof *x);
        return;
    }
    const g4_kernels *kernels = r->e->kernels;
    const size_t width = g4_round_up(dim, 16);
    int16_t row[G4_MAX_HEAD_DIM];
    float *units = which == G4_QUERY ? r->q_unit : r->k_unit;
    const float unit = which == G4_VALUE ? r->v_unit : (units[nth * G4_TOWER_TILE + t] = g4_unit16(x, (int)dim));
    kernels->round16(which == G4_QUERY ? r->q16 + (nth * G4_TOWER_TILE + t) * dim : row, x, 1.0f / unit, (int)dim);
    int16_t *k = r->k16 + nth * G4_TOWER_TILE * dim + 2 * t;
    int16_t *v = r->val16 + (nth * G4_TOWER_TILE + t / 2 * 2) * width + t % 2;
    if (which == G4_KEY)
        for (size_t i = 0; i < dim; i += 2) memcpy(k + i * G4_TOWER_TILE, row + i, 2 * sizeof *row);
    if (which == G4_VALUE)
        for (size_t i = 0; i < dim; i++) v[2 * i] = row[i];
}

/* norm; q, k, v; per-head norms (v without weight); RoPE on q and k */
static void g4_vision_keys_piece(void *ctx, int piece, int worker)
{
    g4_vision_run *r = ctx;
    g4_vision_work *w = &r->work[worker];
    const g4_vision_layer *l = r->layer;
    const g4_config *c = &r->e->file.config;
    const g4_kernels *kernels = r->e->kernels;
    size_t hidden = c->v_hidden, dim = c->v_head_dim, quarter = dim / 4;
    int n, t0 = g4_tile_span(piece, r->n, &n);
    for (int t = 0; t < n; t++)
        kernels->rmsnorm(w->norm + (size_t)t * hidden, r->x + (size_t)(t0 + t) * hidden, l->attn_norm, (int)hidden,
                         c->v_eps);
    const g4_linear *const projections[] = { &l->q, &l->k, &l->v };
    const float *const norms[] = { l->q_norm, l->k_norm, NULL };
    for (int which = G4_QUERY; which <= G4_VALUE; which++) {
        g4_linear_apply_after(which ? projections[which - 1] : NULL, kernels, &w->linear, projections[which], w->wide,
                              r->wide_stride, w->norm, hidden, n);
        for (int t = 0; t < n; t++) {
            const int32_t *pos = r->patches->pos + 2 * (size_t)(t0 + t);
            size_t px = (size_t)pos[0] * quarter, py = (size_t)pos[1] * quarter;
            for (size_t h = 0; h < c->v_heads; h++) {
                float *x = w->wide + (size_t)t * r->wide_stride + h * dim;
                kernels->rmsnorm(x, x, norms[which], (int)dim, c->v_eps);
                if (which != G4_VALUE)
                    g4_vision_rope(x, (int)dim, r->cos_t + px, r->sin_t + px, r->cos_t + py, r->sin_t + py);
                g4_vision_store(r, which, h, (size_t)piece, (size_t)t, x);
            }
        }
    }
}

/* All keys of one head for a group of queries, over spans of keys as in the decoder: sums of 10,000 terms keep their
 * precision. The pieces of a head stand together, so that all workers read the same keys and values. */
static void g4_vision_attend_piece(void *ctx, int piece, int worker)
{
    const g4_vision_run *r = ctx;
    const g4_vision_work *w = &r->work[worker];
    const g4_config *c = &r->e->file.config;
    const g4_kernels *kernels = r->e->kernels;
    const size_t dim = c->v_head_dim, all = c->v_heads * dim, padded = g4_round_up(dim, 16);
    const size_t width = r->in16 ? padded : dim; /* of a row of o */
    const int per_span = G4_SPAN / G4_TOWER_TILE;
    const int t0 = piece % r->groups * G4_VISION_QUERIES, n = g4_min_int(r->n - t0, G4_VISION_QUERIES);
    const size_t head = (size_t)(piece / r->groups), first = head * (size_t)r->tiles; /* tile of this head */
    const size_t query = first * G4_TOWER_TILE + (size_t)t0;
    int lo[G4_VISION_QUERIES] = { 0 }, hi[G4_VISION_QUERIES];
    for (int t = 0; t < n; t++) {
        w->M[t] = -INFINITY;
        w->L[t] = 0;
    }
    memset(w->O, 0, (size_t)n * width * sizeof *w->O);
    for (int span = 0; span < r->tiles; span += per_span) {
        for (int t = 0; t < n; t++) {
            w->m[t] = -INFINITY;
            w->l[t] = 0;
        }
        memset(w->o, 0, (size_t)n * width * sizeof *w->o);
        for (int tile = span; tile < span + per_span && tile < r->tiles; tile++) {
            const int end = g4_min_int(r->n - tile * G4_TOWER_TILE, G4_TOWER_TILE);
            const size_t key = (first + (size_t)tile) * G4_TOWER_TILE;
            if (r->in16) {
                const g4_tile16 kv = { r->k16 + key * dim, r->val16 + key * padded, r->k_unit + key, r->v_unit };
                kernels->attend16(&kv, end, (int)dim, r->q16 + query * dim, r->q_unit + query, n, w->m, w->l, w->o);
                continue;
            }
            const g4_kv_tile kv = { r->k + key * dim, r->val + key * dim, NULL, NULL, NULL };
            for (int t = 0; t < n; t++) hi[t] = end;
            kernels->attend(&kv, G4_KV_F32, (int)dim, r->q + query * dim, n, lo, hi, w->m, w->l, w->o);
        }
        for (size_t t = 0; t < (size_t)n; t++)
            g4_attend_merge(&w->M[t], &w->L[t], w->O + t * width, w->m[t], w->l[t], w->o + t * width, (int)dim);
    }
    for (size_t t = 0; t < (size_t)n; t++) {
        float *seen = r->seen + ((size_t)t0 + t) * all + head * dim;
        for (size_t i = 0; i < dim; i++) seen[i] = w->O[t * width + i] / w->L[t];
    }
}

/* x += norm(o . attention);  x += norm(down . (gelu(gate . norm(x)) * up . norm(x))) */
static void g4_vision_layer_piece(void *ctx, int piece, int worker)
{
    g4_vision_run *r = ctx;
    g4_vision_work *w = &r->work[worker];
    const g4_vision_layer *l = r->layer;
    const g4_config *c = &r->e->file.config;
    const g4_kernels *kernels = r->e->kernels;
    size_t hidden = c->v_hidden, all = c->v_heads * (size_t)c->v_head_dim, mlp = c->v_mlp;
    size_t mlp_stride = g4_tower_stride(mlp);
    int n, t0 = g4_tile_span(piece, r->n, &n);
    g4_linear_apply(kernels, &w->linear, &l->o, w->wide, r->wide_stride, r->seen + (size_t)t0 * all, all, n);
    for (size_t t = 0; t < (size_t)n; t++) {
        float *x = r->x + ((size_t)t0 + t) * hidden, *y = w->wide + t * r->wide_stride;
        kernels->rmsnorm(y, y, l->attn_post_norm, (int)hidden, c->v_eps);
        for (size_t i = 0; i < hidden; i++) x[i] += y[i];
        kernels->rmsnorm(w->norm + t * hidden, x, l->mlp_norm, (int)hidden, c->v_eps);
    }
    g4_linear_apply(kernels, &w->linear, &l->gate, w->gate, mlp_stride, w->norm, hidden, n);
    g4_linear_apply_after(&l->gate, kernels, &w->linear, &l->up, w->up, mlp_stride, w->norm, hidden, n);
    for (size_t t = 0; t < (size_t)n; t++) {
        float *gate = w->gate + t * mlp_stride;
        kernels->geglu(gate, gate, w->up + t * mlp_stride, (int)mlp);
    }
    g4_linear_apply(kernels, &w->linear, &l->down, w->wide, r->wide_stride, w->gate, mlp_stride, n);
    for (size_t t = 0; t < (size_t)n; t++) {
        float *x = r->x + ((size_t)t0 + t) * hidden, *y = w->wide + t * r->wide_stride;
        kernels->rmsnorm(y, y, l->mlp_post_norm, (int)hidden, c->v_eps);
        for (size_t i = 0; i < hidden; i++) x[i] += y[i];
    }
}

/* Mean over pool x pool patches * sqrt(hidden); (h - bias) * scale; norm; projection. */
static void g4_vision_pool_piece(void *ctx, int piece, int worker)
{
    g4_vision_run *r = ctx;
    g4_vision_work *w = &r->work[worker];
    const g4_config *c = &r->e->file.config;
    size_t hidden = c->v_hidden, pool = c->v_pool, grid = (size_t)r->patches->grid_w, across = grid / pool;
    float share = 1.0f / (float)(pool * pool), root = (float)sqrt((double)hidden);
    int n, t0 = g4_tile_span(piece, r->patches->n_tokens, &n);
    for (size_t t = 0; t < (size_t)n; t++) {
        size_t token = (size_t)t0 + t, x0 = token % across * pool, y0 = token / across * pool;
        float *y = w->norm + t * hidden;
        memset(y, 0, hidden * sizeof *y);
        for (size_t p = 0; p < pool * pool; p++) {
            const float *x = r->x + ((y0 + p / pool) * grid + x0 + p % pool) * hidden;
            for (size_t i = 0; i < hidden; i++) y[i] += share * x[i];
        }
        for (size_t i = 0; i < hidden; i++) y[i] *= root;
        if (r->v->std_bias)
            for (size_t i = 0; i < hidden; i++) y[i] = (y[i] - r->v->std_bias[i]) * r->v->std_scale[i];
        r->e->kernels->rmsnorm(y, y, NULL, (int)hidden, c->v_eps);
    }
    g4_linear_apply(r->e->kernels, &w->linear, &r->v->proj, w->wide, r->wide_stride, w->norm, hidden, n);
    for (size_t t = 0; t < (size_t)n; t++)
        memcpy(r->rows + ((size_t)t0 + t) * c->hidden, w->wide + t * r->wide_stride, c->hidden * sizeof *r->rows);
}

static void g4_vision_run_close(g4_vision_run *r)
{
    const g4_allocator *a = r->e->a;
    for (int i = 0; r->work && i < g4_pool_size(r->e->pool); i++) {
        g4_vision_work *w = &r->work[i];
        g4_linear_work_close(&w->linear, a);
        float *parts[] = { w->norm, w->wide, w->gate, w->m, w->l, w->o, w->M, w->L, w->O };
        for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) g4_free(a, parts[p]);
    }
    void *parts[] = { r->x,   r->seen,  r->q,      r->k,      r->val,   r->q16,
                      r->k16, r->val16, r->q_unit, r->k_unit, r->cos_t, r->sin_t };
    for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) g4_free(a, parts[p]);
    g4_free(a, r->work);
}

/* Everything a picture of that size needs; zero when memory is out, and then r is to be closed all the same. */
static int g4_vision_run_open(g4_vision_run *r)
{
    const g4_allocator *a = r->e->a;
    const g4_config *c = &r->e->file.config;
    size_t n = (size_t)r->n, hidden = c->v_hidden, dim = c->v_head_dim, all = c->v_heads * dim, tile = G4_TOWER_TILE;
    size_t side = (size_t)g4_max_int(r->patches->grid_w, r->patches->grid_h);
    size_t values = 3 * (size_t)c->v_patch * c->v_patch;
    size_t mlp_stride = g4_tower_stride(c->v_mlp);
    size_t widest = hidden > all ? hidden : all, deepest = c->v_mlp > values ? c->v_mlp : values;
    size_t gates = 2 * mlp_stride > values ? 2 * mlp_stride : values; /* gate and up, or the pixels of a patch */
    r->wide_stride = g4_tower_stride(widest > c->hidden ? widest : c->hidden);
    r->tiles = (r->n + G4_TOWER_TILE - 1) / G4_TOWER_TILE;
    r->groups = (r->n + G4_VISION_QUERIES - 1) / G4_VISION_QUERIES;
    const size_t padded = (size_t)r->tiles * tile; /* patches */
    r->x = g4_alloc(a, n, hidden * sizeof(float));
    r->seen = g4_alloc(a, n, all * sizeof(float));
    r->in16 = r->e->kernels->attend16 && !g4_type_get(r->v->layers[0].q.w.type)->is_float32;
    if (r->in16) {
        r->v_unit = sqrtf((float)dim) / (float)G4_MAX_FACTOR16;
        r->q16 = g4_alloc(a, padded, all * sizeof *r->q16);
        r->k16 = g4_alloc(a, padded, all * sizeof *r->k16);
        r->val16 = g4_alloc(a, padded, c->v_heads * g4_round_up(dim, 16) * sizeof *r->val16);
        r->q_unit = g4_alloc(a, padded, c->v_heads * sizeof(float));
        r->k_unit = g4_alloc(a, padded, c->v_heads * sizeof(float));
        if (!r->q16 || !r->k16 || !r->val16 || !r->q_unit || !r->k_unit) return 0;
    } else {
        r->q = g4_alloc(a, padded, all * sizeof(float));
        r->k = g4_alloc(a, padded, all * sizeof(float));
        r->val = g4_alloc(a, padded, all * sizeof(float));
        if (!r->q || !r->k || !r->val) return 0;
    }
    r->cos_t = g4_alloc(a, side, dim / 4 * sizeof(float));
    r->sin_t = g4_alloc(a, side, dim / 4 * sizeof(float));
    r->work = g4_alloc(a, (size_t)g4_pool_size(r->e->pool), sizeof *r->work);
    if (!r->x || !r->seen || !r->cos_t || !r->sin_t || !r->work) return 0;
    for (int i = 0; i < g4_pool_size(r->e->pool); i++) {
        g4_vision_work *w = &r->work[i];
        w->norm = g4_alloc(a, tile, hidden * sizeof(float));
        w->wide = g4_alloc(a, tile, r->wide_stride * sizeof(float));
        w->gate = g4_alloc(a, tile, gates * sizeof(float));
        w->m = g4_alloc(a, G4_VISION_QUERIES, sizeof(float));
        w->l = g4_alloc(a, G4_VISION_QUERIES, sizeof(float));
        w->o = g4_alloc(a, G4_VISION_QUERIES, g4_round_up(dim, 16) * sizeof(float));
        w->M = g4_alloc(a, G4_VISION_QUERIES, sizeof(float));
        w->L = g4_alloc(a, G4_VISION_QUERIES, sizeof(float));
        w->O = g4_alloc(a, G4_VISION_QUERIES, g4_round_up(dim, 16) * sizeof(float));
        int ok = g4_linear_work_open(&w->linear, a, (int)(deepest > widest ? deepest : widest));
        if (!ok || !w->norm || !w->wide || !w->gate || !w->m || !w->l || !w->o || !w->M || !w->L || !w->O)
            return 0;
        w->up = w->gate + tile * mlp_stride;
    }
    for (size_t i = 0; i < dim / 4; i++) {
        float inverse = (float)(1.0 / pow((double)c->v_rope_theta, (double)(2 * i) / (double)(dim / 2)));
        for (size_t p = 0; p < side; p++) {
            float angle = (float)p * inverse;
            r->cos_t[p * (dim / 4) + i] = (float)cos((double)angle);
            r->sin_t[p * (dim / 4) + i] = (float)sin((double)angle);
        }
    }
    return 1;
}

/* Patches to rows (n_tokens, text hidden). The engine's compute lock is held. */
static g4_status g4_vision_forward(g4_engine *e, const g4_patches *patches, float *rows, g4_error *err)
{
    const g4_config *c = &e->file.config;
    if (patches->grid_w > (int)c->v_n_pos || patches->grid_h > (int)c->v_n_pos)
        return g4_fail(err, G4_ERR_ARGUMENT, "a picture of %d x %d patches: the model knows %u positions each way",
                       patches->grid_w, patches->grid_h, c->v_n_pos);
    g4_vision_run r = { .e = e, .v = e->vision, .patches = patches, .n = patches->n, .rows = rows };
    if (!g4_vision_run_open(&r)) {
        g4_vision_run_close(&r);
        return g4_fail(err, G4_ERR_MEMORY, "encoding a picture of %d patches: out of memory", patches->n);
    }
    g4_parallel_for(e->pool, r.tiles, g4_vision_embed_piece, &r);
    for (uint32_t i = 0; i < c->v_layers; i++) {
        r.layer = &e->vision->layers[i];
        g4_parallel_for(e->pool, r.tiles, g4_vision_keys_piece, &r);
        g4_parallel_for(e->pool, (int)c->v_heads * r.groups, g4_vision_attend_piece, &r);
        g4_parallel_for(e->pool, r.tiles, g4_vision_layer_piece, &r);
    }
    g4_parallel_for(e->pool, (patches->n_tokens + G4_TOWER_TILE - 1) / G4_TOWER_TILE, g4_vision_pool_piece, &r);
    g4_vision_run_close(&r);
    return G4_OK;
}

/* From here on soft tokens are given out: encoded once, counted by their references, remembered by the engine. */

void g4_soft_retain(g4_engine *e, g4_soft *soft)
{
    g4_lock(e);
    soft->refs++;
    g4_unlock(e);
}

/* With the lock held. */
static void g4_soft_drop(const g4_engine *e, g4_soft *soft)
{
    if (!soft || --soft->refs > 0) return;
    g4_free(e->a, soft->rows);
    g4_free(e->a, soft);
}

void g4_soft_release(g4_engine *e, g4_soft *soft)
{
    g4_lock(e);
    g4_soft_drop(e, soft);
    g4_unlock(e);
}

/* 128 bits over decoded data. Not against an attacker: against one picture answered with another. */
static void g4_media_hash(uint64_t key[2], const void *data, size_t size)
{
    const uint8_t *p = data;
    uint64_t a = key[0], b = key[1];
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = 0;
        memcpy(&word, p + i, size - i < 8 ? size - i : 8);
        a = (a ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        a = a << 29 | a >> 35;
        b = (b + word) * UINT64_C(0xD6E8FEB86659FD93) ^ a;
        b = b << 32 | b >> 32;
    }
    key[0] = (a ^ size) * UINT64_C(0x9E3779B97F4A7C15);
    key[1] = (b ^ key[0] >> 31) * UINT64_C(0xD6E8FEB86659FD93);
}

static size_t g4_soft_bytes(const g4_engine *e, const g4_soft *s)
{
    return (size_t)s->n * e->file.config.hidden * sizeof *s->rows;
}

/* The soft tokens with that key and one more reference, or NULL. */
static g4_soft *g4_soft_find(g4_engine *e, const uint64_t key[2])
{
    g4_soft *found = NULL;
    g4_lock(e);
    for (int i = 0; i < e->n_softs; i++) {
        g4_soft *s = e->softs[i];
        if (s->key[0] != key[0] || s->key[1] != key[1]) continue;
        /* the latest stands last */
        memmove(e->softs + i, e->softs + i + 1, (size_t)(e->n_softs - i - 1) * sizeof *e->softs);
        e->softs[e->n_softs - 1] = found = s;
        s->refs++;
        break;
    }
    g4_unlock(e);
    return found;
}

static void g4_soft_remember(g4_engine *e, g4_soft *s)
{
    g4_lock(e);
    size_t bytes = g4_soft_bytes(e, s);
    for (int i = 0; i < e->n_softs; i++) bytes += g4_soft_bytes(e, e->softs[i]);
    while (e->n_softs > 0 && (e->n_softs == G4_SOFT_CACHE_SLOTS || bytes > G4_SOFT_CACHE_BYTES)) {
        g4_soft *old = e->softs[0];
        bytes -= g4_soft_bytes(e, old);
        memmove(e->softs, e->softs + 1, (size_t)--e->n_softs * sizeof *e->softs);
        g4_soft_drop(e, old);
    }
    s->refs++;
    e->softs[e->n_softs++] = s;
    g4_unlock(e);
}

static g4_soft *g4_soft_new(const g4_engine *e, uint32_t token, const uint64_t key[2], int n)
{
    const g4_allocator *a = e->a;
    g4_soft *s = g4_alloc(a, 1, sizeof *s);
    if (!s) return NULL;
    *s = (g4_soft) { .refs = 1, .token = (g4_token)token, .key = { key[0], key[1] }, .n = n };
    s->rows = g4_alloc(a, (size_t)n, e->file.config.hidden * sizeof *s->rows);
    if (s->rows) return s;
    g4_free(a, s);
    return NULL;
}

static g4_status g4_picture_encode(g4_soft **out, g4_engine *e, const g4_image *image, uint32_t token, int budget,
                                   g4_error *err)
{
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (!e) return g4_fail(err, G4_ERR_ARGUMENT, "engine is NULL");
    const g4_config *c = &e->file.config;
    const g4_allocator *a = e->a;
    if (!e->vision || token == 0)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "this model has no vision tower: it cannot look at pictures");
    if (!image || !image->pixels || image->width <= 0 || image->height <= 0)
        return g4_fail(err, G4_ERR_ARGUMENT, "the picture is empty");
    if (image->max_tokens != 0) budget = image->max_tokens;
    uint64_t key[2] = { (uint64_t)(uint32_t)image->width << 32 | (uint32_t)image->height,
                        (uint64_t)token << 32 | (uint32_t)budget };
    size_t stride = image->stride ? image->stride : 3 * (size_t)image->width;
    for (size_t y = 0; y < (size_t)image->height; y++)
        g4_media_hash(key, image->pixels + y * stride, 3 * (size_t)image->width);
    if ((*out = g4_soft_find(e, key))) return G4_OK;

    g4_patches patches;
    g4_status status = g4_image_patches(a, image, budget, (int)c->v_patch, (int)c->v_pool, &patches, err);
    if (status) return status;
    g4_soft *s = g4_soft_new(e, token, key, patches.n_tokens);
    g4_lock(e);
    status = s ? g4_vision_forward(e, &patches, s->rows, err)
               : g4_fail(err, G4_ERR_MEMORY, "%d soft tokens: out of memory", patches.n_tokens);
    g4_unlock(e);
    g4_patches_free(a, &patches);
    if (status) {
        g4_soft_release(e, s);
        return status;
    }
    g4_soft_remember(e, s);
    *out = s;
    return G4_OK;
}

g4_status g4_image_encode(g4_soft **out, g4_engine *e, const g4_image *image, g4_error *err)
{
    const g4_config *c = e ? &e->file.config : NULL;
    return g4_picture_encode(out, e, image, c ? c->image_token : 0, c ? (int)c->v_default_tokens : 0, err);
}

g4_status g4_frame_encode(g4_soft **out, g4_engine *e, const g4_image *frame, g4_error *err)
{
    return g4_picture_encode(out, e, frame, e ? e->file.config.video_token : 0, G4_FRAME_TOKENS, err);
}

void g4_soft_close(g4_engine *e, g4_soft *soft) { g4_soft_release(e, soft); }
int g4_soft_n(const g4_soft *soft) { return soft ? soft->n : 0; }
g4_token g4_soft_token(const g4_soft *soft) { return soft ? soft->token : -1; }
const float *g4_soft_rows(const g4_soft *soft) { return soft ? soft->rows : NULL; }

/* ---- 12. Audio -------------------------------------------------------------------------------------
 *
 * In: at most 30 s of 16 kHz mono samples. Out: one soft token of the text model's width for each 40 ms, at most 750.
 * E2B and E4B. MODEL.md, "Audio tower". Log-mel frames every 10 ms; two 3 x 3 convolutions of stride 2 with a LayerNorm
 * over channels and ReLU; conformer layers: half a feed-forward, attention over the last 12 tokens with relative keys,
 * light convolution, half a feed-forward; projection with bias; weightless norm; projection. A piece of work is a tile
 * of 64 tokens. */

/* Feature extractor (feature_extraction_gemma4.py): frames of 20 ms every 10 ms, FFT of 512. */
#define G4_MEL_HOP 160
#define G4_MEL_FRAME 320
#define G4_MEL_FFT 512
#define G4_MEL_BINS (G4_MEL_FFT / 2 + 1)
#define G4_MEL_BANDS 128
#define G4_MEL_MAX_SAMPLES 480000 /* 30 s */
#define G4_MEL_CUT_FROM 400000    /* a longer sound is cut in the last 5 s before that */
#define G4_AUDIO_TILE 64
#define G4_AUDIO_EPS 1e-6f /* of the norms that do not follow the configuration: Gemma4RMSNorm's default */

typedef struct {
    float window[G4_MEL_FRAME]; /* periodic Hann, in float32 as there */
    double cos_t[G4_MEL_FFT / 2], sin_t[G4_MEL_FFT / 2];
    double edge[G4_MEL_BANDS + 2]; /* Hz: band b is the triangle over edge[b], edge[b + 1], edge[b + 2] */
    float weight[2 * G4_MEL_BINS]; /* of the bins of band 0, then of band 1, ...: no bin lies in more than two bands */
    int first[G4_MEL_BANDS], count[G4_MEL_BANDS];
} g4_mel;

static void g4_mel_open(g4_mel *m)
{
    const double pi = 3.14159265358979323846, hz = 16000.0 / G4_MEL_FFT; /* between bins */
    for (int i = 0; i < G4_MEL_FRAME; i++) m->window[i] = (float)(0.5 - 0.5 * cos(2 * pi * i / G4_MEL_FRAME));
    for (int i = 0; i < G4_MEL_FFT / 2; i++) {
        m->cos_t[i] = cos(2 * pi * i / G4_MEL_FFT);
        m->sin_t[i] = sin(2 * pi * i / G4_MEL_FFT);
    }
    double top = 2595.0 * log10(1.0 + 8000.0 / 700.0); /* HTK scale: mel = 2595 log10(1 + f / 700) */
    for (int i = 0; i < G4_MEL_BANDS + 2; i++)
        m->edge[i] = 700.0 * (pow(10.0, top * i / (G4_MEL_BANDS + 1) / 2595.0) - 1.0);
    int at = 0;
    for (int b = 0; b < G4_MEL_BANDS; b++) {
        double lo = m->edge[b], mid = m->edge[b + 1], hi = m->edge[b + 2];
        m->first[b] = (int)ceil(lo / hz);
        m->count[b] = 0;
        for (int k = m->first[b]; k < G4_MEL_BINS && k * hz < hi; k++) {
            double up = (k * hz - lo) / (mid - lo), down = (hi - k * hz) / (hi - mid);
            m->weight[at++] = (float)(up < down ? up : down);
            m->count[b]++;
        }
    }
}

/* Frame f of the block's n samples, as G4_MEL_BANDS values: ln(0.001 + sum_k weight[k] |FFT(window * x)[k]|). */
static void g4_mel_frame(const g4_mel *m, const float *samples, size_t n, int f, float *out)
{
    double re[G4_MEL_FFT] = { 0 }, im[G4_MEL_FFT] = { 0 }, magnitude[G4_MEL_BINS];
    /* 160 zeros stand before the first sample; bit-reversed order for the butterflies below */
    for (int i = 0; i < G4_MEL_FRAME; i++) {
        long at = (long)f * G4_MEL_HOP + i - G4_MEL_HOP;
        unsigned r = 0;
        for (unsigned bit = 0; bit < 9; bit++) r |= ((unsigned)i >> bit & 1u) << (8 - bit);
        re[r] = at >= 0 && (size_t)at < n ? (double)(samples[at] * m->window[i]) : 0.0;
    }
    for (int half = 1; half < G4_MEL_FFT; half *= 2) { /* radix 2, decimation in time */
        int step = G4_MEL_FFT / 2 / half;
        for (int start = 0; start < G4_MEL_FFT; start += 2 * half) {
            for (int i = 0; i < half; i++) {
                int a = start + i, b = a + half;
                double c = m->cos_t[i * step], s = m->sin_t[i * step];
                double x = re[b] * c + im[b] * s, y = im[b] * c - re[b] * s;
                re[b] = re[a] - x;
                im[b] = im[a] - y;
                re[a] += x;
                im[a] += y;
            }
        }
    }
    for (int k = 0; k < G4_MEL_BINS; k++) magnitude[k] = sqrt(re[k] * re[k] + im[k] * im[k]);
    const float *weight = m->weight;
    for (int b = 0; b < G4_MEL_BANDS; b++) {
        double sum = 0;
        for (int k = 0; k < m->count[b]; k++) sum += *weight++ * magnitude[m->first[b] + k];
        out[b] = (float)log(sum + 1e-3);
    }
}

/* A frame needs 321 samples to exist, the 160 zeros in front among them (one more than it reads: the reference's
 * pre-emphasis). */
static int g4_mel_count(size_t n_samples)
{
    if (n_samples > G4_MEL_MAX_SAMPLES) n_samples = G4_MEL_MAX_SAMPLES;
    return n_samples == 0 ? 0 : (int)((n_samples - 1) / G4_MEL_HOP);
}

int g4_audio_mel(const g4_audio *block, float *out)
{
    int frames = block && block->samples ? g4_mel_count(block->n_samples) : 0;
    if (!out || frames == 0) return frames;
    g4_mel m;
    g4_mel_open(&m);
    for (int f = 0; f < frames; f++)
        g4_mel_frame(&m, block->samples, block->n_samples, f, out + (size_t)f * G4_MEL_BANDS);
    return frames;
}

size_t g4_audio_block(const g4_audio *audio, size_t from)
{
    if (!audio || from >= audio->n_samples) return 0;
    size_t rest = audio->n_samples - from;
    if (rest <= G4_MEL_MAX_SAMPLES) return rest;
    /* The quietest 200 ms, by energy, whose middle lies before the limit and leaves the next block at least as much:
     * the rest must not be too short to be heard. On a tie the later one. */
    const size_t half = 1600;
    size_t last = rest - half < G4_MEL_MAX_SAMPLES ? rest - half : G4_MEL_MAX_SAMPLES, best = last;
    double least = INFINITY;
    for (size_t cut = G4_MEL_CUT_FROM; cut <= last; cut += G4_MEL_HOP) {
        double energy = 0;
        for (size_t i = cut - half; i < cut + half; i++)
            energy += (double)audio->samples[from + i] * (double)audio->samples[from + i];
        if (energy <= least) {
            least = energy;
            best = cut;
        }
    }
    return best;
}

typedef struct {
    /* norms (hidden) */
    const float *ff1_norm, *ff1_post_norm, *attn_norm, *attn_post_norm, *conv_norm, *conv_mid_norm;
    const float *ff2_norm, *ff2_post_norm, *norm;
    g4_linear ff1_up, ff1_down, q, k, v, post, conv_in, conv_out, ff2_up, ff2_down;
    const float *conv;    /* (kernel, hidden): oldest tap first, no bias */
    const float *q_scale; /* (head_dim) */
    const float *rel_k;   /* (context, hidden): projected sin|cos of distance 0, 1, ... */
} g4_audio_layer;

typedef struct g4_audio_tower {
    const float *conv0, *conv0_norm, *conv1_norm; /* (9, conv0), (conv0), (conv1); LayerNorms without bias */
    g4_linear conv1, in, out, proj; /* (conv1, 9 * conv0), (hidden, 32 * conv1), (out, hidden), (text hidden, out) */
    const float *out_bias;          /* (out) */
    g4_audio_layer *layers;
} g4_audio_tower;

/* Bind the tensors of the audio tower; e->audio stays NULL when the file has none. */
static void g4_audio_bind(g4_engine *e, g4_binder *b)
{
    const g4_config *c = &e->file.config;
    const uint64_t h = c->a_hidden, conv0 = c->a_conv0, conv1 = c->a_conv1;
    if (c->a_layers == 0 || b->status) return;
    g4_audio_tower *t = e->audio = g4_alloc(e->a, 1, sizeof *t);
    if (t) t->layers = g4_alloc(e->a, c->a_layers, sizeof *t->layers);
    if (!t || !t->layers) {
        b->status = g4_fail(b->err, G4_ERR_MEMORY, "no memory for the audio tower");
        return;
    }
    t->conv0 = g4_bind_array(b, "a.conv0", -1, "", 9, conv0);
    t->conv0_norm = g4_bind_vector(b, "a.conv0_norm", -1, "", conv0);
    t->conv1 = g4_bind_linear(b, "a.conv1", -1, "", conv1, 9 * conv0, NULL);
    t->conv1_norm = g4_bind_vector(b, "a.conv1_norm", -1, "", conv1);
    t->in = g4_bind_linear(b, "a.in", -1, "", h, G4_MEL_BANDS / 4 * conv1, NULL);
    for (int l = 0; l < (int)c->a_layers; l++) {
        g4_audio_layer *w = &t->layers[l];
        const float *bounds = g4_bind_array(b, "a", l, "bounds", 10, 4);
        if (b->status) return;
        w->ff1_norm = g4_bind_vector(b, "a", l, "ff1_norm", h);
        w->ff1_up = g4_bind_linear(b, "a", l, "ff1_up", 4 * h, h, bounds);
        w->ff1_down = g4_bind_linear(b, "a", l, "ff1_down", h, 4 * h, bounds + 4);
        w->ff1_post_norm = g4_bind_vector(b, "a", l, "ff1_post_norm", h);
        w->attn_norm = g4_bind_vector(b, "a", l, "attn_norm", h);
        w->q = g4_bind_linear(b, "a", l, "q", h, h, bounds + 8);
        w->k = g4_bind_linear(b, "a", l, "k", h, h, bounds + 12);
        w->v = g4_bind_linear(b, "a", l, "v", h, h, bounds + 16);
        w->post = g4_bind_linear(b, "a", l, "post", h, h, bounds + 20);
        w->q_scale = g4_bind_vector(b, "a", l, "q_scale", h / c->a_heads);
        w->rel_k = g4_bind_array(b, "a", l, "rel_k", c->a_context, h);
        w->attn_post_norm = g4_bind_vector(b, "a", l, "attn_post_norm", h);
        w->conv_norm = g4_bind_vector(b, "a", l, "conv_norm", h);
        w->conv_in = g4_bind_linear(b, "a", l, "conv_in", 2 * h, h, bounds + 24);
        w->conv = g4_bind_array(b, "a", l, "conv", c->a_kernel, h);
        w->conv_mid_norm = g4_bind_vector(b, "a", l, "conv_mid_norm", h);
        w->conv_out = g4_bind_linear(b, "a", l, "conv_out", h, h, bounds + 28);
        w->ff2_norm = g4_bind_vector(b, "a", l, "ff2_norm", h);
        w->ff2_up = g4_bind_linear(b, "a", l, "ff2_up", 4 * h, h, bounds + 32);
        w->ff2_down = g4_bind_linear(b, "a", l, "ff2_down", h, 4 * h, bounds + 36);
        w->ff2_post_norm = g4_bind_vector(b, "a", l, "ff2_post_norm", h);
        w->norm = g4_bind_vector(b, "a", l, "norm", h);
    }
    t->out = g4_bind_linear(b, "a.out", -1, "", c->a_out, h, NULL);
    t->out_bias = g4_bind_vector(b, "a.out_bias", -1, "", c->a_out);
    t->proj = g4_bind_linear(b, "a.proj", -1, "", c->hidden, c->a_out, NULL);
}

typedef struct {
    g4_linear_work linear;
    float *a, *b; /* (TILE, widest) each */
    float *taps;  /* (32, 9 * conv0): the inputs of one time row of the second convolution */
    float *rows;  /* (2 * TILE + 1, 64, conv0): the first convolution's output that a piece reads */
} g4_audio_work;

typedef struct {
    g4_engine *e;
    const g4_audio_tower *tower;
    const g4_audio_layer *layer;
    g4_mel mel_tables;
    const g4_audio *block;
    int frames, half, n; /* mel frames; after one convolution; tokens */
    size_t wide;         /* floats from token to token in a and b */
    float *mel;          /* (frames, 128) */
    float *x;            /* (n, hidden): the residual stream */
    float *q, *k, *v;    /* (n, hidden) */
    float *glu;          /* (n, hidden): gated input of the depthwise convolution */
    float *rows;         /* (n, text hidden): the result */
    g4_audio_work *work;
} g4_audio_run;

static int g4_audio_span(int piece, int n, int *count)
{
    int t0 = piece * G4_AUDIO_TILE;
    *count = g4_min_int(n - t0, G4_AUDIO_TILE);
    return t0;
}

static void g4_audio_mel_piece(void *ctx, int piece, int worker)
{
    g4_audio_run *r = ctx;
    int n, f0 = g4_audio_span(piece, r->frames, &n);
    (void)worker;
    for (int f = f0; f < f0 + n; f++)
        g4_mel_frame(&r->mel_tables, r->block->samples, r->block->n_samples, f, r->mel + (size_t)f * G4_MEL_BANDS);
}

/* y = relu((y - mean) / sqrt(var + eps) * w) over n channels */
static void g4_layernorm_relu(float *y, const float *w, size_t n, float eps)
{
    float mean = 0, var = 0;
    for (size_t i = 0; i < n; i++) mean += y[i];
    mean /= (float)n;
    for (size_t i = 0; i < n; i++) var += (y[i] - mean) * (y[i] - mean);
    float scale = 1.0f / sqrtf(var / (float)n + eps);
    for (size_t i = 0; i < n; i++) {
        float v = (y[i] - mean) * scale * w[i];
        y[i] = v > 0 ? v : 0;
    }
}

/* One output time of the first convolution: out (64, conv0) from mel frames 2 t - 1 .. 2 t + 1; 3 x 3, stride 2, zeros
 * around. */
static void g4_audio_conv0(const g4_audio_run *r, int t, float *out)
{
    const g4_config *c = &r->e->file.config;
    size_t channels = c->a_conv0;
    for (int f = 0; f < G4_MEL_BANDS / 2; f++) {
        float *y = out + (size_t)f * channels;
        memset(y, 0, channels * sizeof *y);
        for (int tap = 0; tap < 9; tap++) {
            int time = 2 * t - 1 + tap / 3, band = 2 * f - 1 + tap % 3;
            if (time < 0 || time >= r->frames || band < 0 || band >= G4_MEL_BANDS) continue;
            float x = r->mel[(size_t)time * G4_MEL_BANDS + (size_t)band];
            const float *w = r->tower->conv0 + (size_t)tap * channels;
            for (size_t i = 0; i < channels; i++) y[i] += w[i] * x;
        }
        g4_layernorm_relu(y, r->tower->conv0_norm, channels, c->a_eps);
    }
}

/* Mel to x: both convolutions and the input projection, whose inputs are (frequency, channel), channel fastest. */
static void g4_audio_subsample_piece(void *ctx, int piece, int worker)
{
    g4_audio_run *r = ctx;
    g4_audio_work *w = &r->work[worker];
    const g4_config *c = &r->e->file.config;
    size_t c0 = c->a_conv0, c1 = c->a_conv1, row = G4_MEL_BANDS / 2 * c0, padded = g4_round_up(c1, 16);
    int n, t0 = g4_audio_span(piece, r->n, &n), bands = G4_MEL_BANDS / 4;
    for (int i = 0; i < 2 * n + 1; i++) { /* times 2 t0 - 1 .. */
        int t = 2 * t0 - 1 + i;
        if (t >= 0 && t < r->half)
            g4_audio_conv0(r, t, w->rows + (size_t)i * row);
        else
            memset(w->rows + (size_t)i * row, 0, row * sizeof(float));
    }
    for (int t = 0; t < n; t++) {
        memset(w->taps, 0, (size_t)bands * 9 * c0 * sizeof(float));
        for (int f = 0; f < bands; f++) {
            for (int tap = 0; tap < 9; tap++) {
                int band = 2 * f - 1 + tap % 3;
                if (band < 0) continue; /* band 2 * 31 + 1 is the last there is */
                memcpy(w->taps + ((size_t)f * 9 + (size_t)tap) * c0,
                       w->rows + (size_t)(2 * t + tap / 3) * row + (size_t)band * c0, c0 * sizeof(float));
            }
        }
        g4_linear_apply(r->e->kernels, &w->linear, &r->tower->conv1, w->b, padded, w->taps, 9 * c0, bands);
        for (int f = 0; f < bands; f++) {
            float *y = w->b + (size_t)f * padded;
            g4_layernorm_relu(y, r->tower->conv1_norm, c1, c->a_eps);
            memcpy(w->a + (size_t)t * r->wide + (size_t)f * c1, y, c1 * sizeof *y);
        }
    }
    g4_linear_apply(r->e->kernels, &w->linear, &r->tower->in, w->b, r->wide, w->a, r->wide, n);
    for (size_t t = 0; t < (size_t)n; t++)
        memcpy(r->x + ((size_t)t0 + t) * c->a_hidden, w->b + t * r->wide, c->a_hidden * sizeof(float));
}

/* s = 1 / (1 + exp(-x)) = 1/2 + tanh(x / 2) / 2, by the kernel for 2 tanh(x / 2) */
static void g4_sigmoid(const g4_kernels *kernels, float *s, const float *x, size_t n)
{
    memcpy(s, x, n * sizeof *s);
    kernels->softcap(s, (int)n, 2.0f);
    for (size_t i = 0; i < n; i++) s[i] = 0.5f + 0.25f * s[i];
}

/* x = x * sigmoid(x); s has room for n. */
static void g4_silu(const g4_kernels *kernels, float *x, float *s, size_t n)
{
    g4_sigmoid(kernels, s, x, n);
    for (size_t i = 0; i < n; i++) x[i] *= s[i];
}

/* y = norm(clamp(x)) */
static void g4_audio_norm(const g4_audio_run *r, float *y, const float *x, const float *weight)
{
    const g4_config *c = &r->e->file.config;
    if (y != x) memcpy(y, x, c->a_hidden * sizeof *y);
    g4_clamp_row(y, c->a_hidden, -c->a_clip, c->a_clip);
    r->e->kernels->rmsnorm(y, y, weight, (int)c->a_hidden, G4_AUDIO_EPS);
}

/* x += residual_weight * norm(clamp(down . silu(up . norm(clamp(x)))))      Gemma4AudioFeedForward */
static void g4_audio_feed_forward(const g4_audio_run *r, g4_audio_work *w, float *x, int n, const float *norm,
                                  const g4_linear *up, const g4_linear *down, const float *post_norm)
{
    const g4_config *c = &r->e->file.config;
    size_t hidden = c->a_hidden;
    for (size_t t = 0; t < (size_t)n; t++) g4_audio_norm(r, w->a + t * r->wide, x + t * hidden, norm);
    g4_linear_apply(r->e->kernels, &w->linear, up, w->b, r->wide, w->a, r->wide, n);
    for (size_t t = 0; t < (size_t)n; t++) g4_silu(r->e->kernels, w->b + t * r->wide, w->a + t * r->wide, 4 * hidden);
    g4_linear_apply(r->e->kernels, &w->linear, down, w->a, r->wide, w->b, r->wide, n);
    for (size_t t = 0; t < (size_t)n; t++) {
        float *y = w->a + t * r->wide;
        g4_audio_norm(r, y, y, post_norm);
        for (size_t i = 0; i < hidden; i++) x[t * hidden + i] += y[i] * c->a_residual_weight;
    }
}

/* The first half feed-forward; q, k, v of the layer's attention. */
static void g4_audio_keys_piece(void *ctx, int piece, int worker)
{
    g4_audio_run *r = ctx;
    g4_audio_work *w = &r->work[worker];
    const g4_audio_layer *l = r->layer;
    const g4_config *c = &r->e->file.config;
    size_t hidden = c->a_hidden, dim = hidden / c->a_heads;
    const float k_scale = 1.8946361f; /* ln(1 + e) / ln 2 */
    int n, t0 = g4_audio_span(piece, r->n, &n);
    float *x = r->x + (size_t)t0 * hidden;
    g4_audio_feed_forward(r, w, x, n, l->ff1_norm, &l->ff1_up, &l->ff1_down, l->ff1_post_norm);
    for (size_t t = 0; t < (size_t)n; t++) g4_audio_norm(r, w->a + t * r->wide, x + t * hidden, l->attn_norm);
    const g4_linear *const projections[] = { &l->q, &l->k, &l->v };
    float *const targets[] = { r->q, r->k, r->v };
    for (int which = 0; which < 3; which++) {
        g4_linear_apply_after(which ? projections[which - 1] : NULL, r->e->kernels, &w->linear, projections[which],
                              w->b, r->wide, w->a, r->wide, n);
        for (size_t t = 0; t < (size_t)n; t++) {
            const float *y = w->b + t * r->wide;
            float *out = targets[which] + ((size_t)t0 + t) * hidden;
            for (size_t i = 0; i < hidden; i++)
                out[i] = y[i] * (which == 0 ? l->q_scale[i % dim] : which == 1 ? k_scale : 1);
        }
    }
}

/* Sum of a[i] * b[i] in eight running sums, which a compiler can keep in registers. */
static float g4_dot(const float *a, const float *b, size_t n)
{
    float sum[8] = { 0 };
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t j = 0; j < 8; j++) sum[j] += a[i + j] * b[i + j];
    for (; i < n; i++) sum[0] += a[i] * b[i];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

/* Token t looks at itself and the a_context - 1 tokens before it:
 *   score(d) = cap tanh((q . k[t - d] + q . rel[d]) / cap);  out = sum_d softmax(score)(d) v[t - d]
 * Gemma4AudioAttention */
static void g4_audio_attend(const g4_audio_run *r, int t, float *out)
{
    const g4_config *c = &r->e->file.config;
    size_t hidden = c->a_hidden, dim = hidden / c->a_heads;
    int keys = g4_min_int(t + 1, (int)c->a_context);
    float score[G4_MAX_AUDIO_CONTEXT];
    for (size_t h = 0; h < c->a_heads; h++) {
        const float *q = r->q + (size_t)t * hidden + h * dim;
        float most = -INFINITY, total = 0, *y = out + h * dim;
        for (int d = 0; d < keys; d++) {
            float s = g4_dot(q, r->k + (size_t)(t - d) * hidden + h * dim, dim) +
                      g4_dot(q, r->layer->rel_k + (size_t)d * hidden + h * dim, dim);
            score[d] = tanhf(s / c->a_logit_cap) * c->a_logit_cap;
            if (score[d] > most) most = score[d];
        }
        memset(y, 0, dim * sizeof *y);
        for (int d = 0; d < keys; d++) {
            float p = expf(score[d] - most);
            const float *v = r->v + (size_t)(t - d) * hidden + h * dim;
            total += p;
            for (size_t i = 0; i < dim; i++) y[i] += p * v[i];
        }
        for (size_t i = 0; i < dim; i++) y[i] /= total;
    }
}

/* x += norm(clamp(post . attention)); the light convolution up to its gate: glu = a * sigmoid(b) with
 * a|b = linear_start . norm(x) */
static void g4_audio_attention_piece(void *ctx, int piece, int worker)
{
    g4_audio_run *r = ctx;
    g4_audio_work *w = &r->work[worker];
    const g4_audio_layer *l = r->layer;
    const g4_config *c = &r->e->file.config;
    size_t hidden = c->a_hidden;
    int n, t0 = g4_audio_span(piece, r->n, &n);
    float *x = r->x + (size_t)t0 * hidden;
    for (int t = 0; t < n; t++) g4_audio_attend(r, t0 + t, w->a + (size_t)t * r->wide);
    g4_linear_apply(r->e->kernels, &w->linear, &l->post, w->b, r->wide, w->a, r->wide, n);
    for (size_t t = 0; t < (size_t)n; t++) {
        float *y = w->b + t * r->wide;
        g4_audio_norm(r, y, y, l->attn_post_norm);
        for (size_t i = 0; i < hidden; i++) x[t * hidden + i] += y[i];
        r->e->kernels->rmsnorm(w->a + t * r->wide, x + t * hidden, l->conv_norm, (int)hidden, c->a_eps);
    }
    g4_linear_apply(r->e->kernels, &w->linear, &l->conv_in, w->b, r->wide, w->a, r->wide, n);
    for (size_t t = 0; t < (size_t)n; t++) {
        const float *y = w->b + t * r->wide;
        float *glu = r->glu + ((size_t)t0 + t) * hidden;
        g4_sigmoid(r->e->kernels, glu, y + hidden, hidden);
        for (size_t i = 0; i < hidden; i++) glu[i] *= y[i];
    }
}

/* x += linear_end . silu(norm(clamp(causal depthwise convolution))); the second half feed-forward;
 * x = norm(clamp(x)) */
static void g4_audio_conv_piece(void *ctx, int piece, int worker)
{
    g4_audio_run *r = ctx;
    g4_audio_work *w = &r->work[worker];
    const g4_audio_layer *l = r->layer;
    const g4_config *c = &r->e->file.config;
    size_t hidden = c->a_hidden;
    int n, t0 = g4_audio_span(piece, r->n, &n), kernel = (int)c->a_kernel;
    float *x = r->x + (size_t)t0 * hidden;
    for (int t = 0; t < n; t++) {
        float *y = w->a + (size_t)t * r->wide;
        memset(y, 0, hidden * sizeof *y);
        for (int tap = 0; tap < kernel; tap++) {
            int from = t0 + t - (kernel - 1) + tap;
            if (from < 0) continue;
            const float *g = r->glu + (size_t)from * hidden, *k = l->conv + (size_t)tap * hidden;
            for (size_t i = 0; i < hidden; i++) y[i] += k[i] * g[i];
        }
        g4_clamp_row(y, hidden, -c->a_clip, c->a_clip);
        r->e->kernels->rmsnorm(y, y, l->conv_mid_norm, (int)hidden, c->a_eps);
        g4_silu(r->e->kernels, y, w->b, hidden);
    }
    g4_linear_apply(r->e->kernels, &w->linear, &l->conv_out, w->b, r->wide, w->a, r->wide, n);
    for (size_t t = 0; t < (size_t)n; t++)
        for (size_t i = 0; i < hidden; i++) x[t * hidden + i] += w->b[t * r->wide + i];
    g4_audio_feed_forward(r, w, x, n, l->ff2_norm, &l->ff2_up, &l->ff2_down, l->ff2_post_norm);
    for (size_t t = 0; t < (size_t)n; t++) g4_audio_norm(r, x + t * hidden, x + t * hidden, l->norm);
}

/* rows = proj . norm(out . x + bias) */
static void g4_audio_out_piece(void *ctx, int piece, int worker)
{
    g4_audio_run *r = ctx;
    g4_audio_work *w = &r->work[worker];
    const g4_config *c = &r->e->file.config;
    int n, t0 = g4_audio_span(piece, r->n, &n);
    g4_linear_apply(r->e->kernels, &w->linear, &r->tower->out, w->a, r->wide, r->x + (size_t)t0 * c->a_hidden,
                    c->a_hidden, n);
    for (size_t t = 0; t < (size_t)n; t++) {
        float *y = w->a + t * r->wide;
        for (size_t i = 0; i < c->a_out; i++) y[i] += r->tower->out_bias[i];
        r->e->kernels->rmsnorm(y, y, NULL, (int)c->a_out, c->a_eps);
    }
    g4_linear_apply(r->e->kernels, &w->linear, &r->tower->proj, w->b, r->wide, w->a, r->wide, n);
    for (size_t t = 0; t < (size_t)n; t++)
        memcpy(r->rows + ((size_t)t0 + t) * c->hidden, w->b + t * r->wide, c->hidden * sizeof *r->rows);
}

static void g4_audio_run_close(g4_audio_run *r)
{
    const g4_allocator *a = r->e->a;
    for (int i = 0; r->work && i < g4_pool_size(r->e->pool); i++) {
        g4_audio_work *w = &r->work[i];
        g4_linear_work_close(&w->linear, a);
        g4_free(a, w->a);
        g4_free(a, w->b);
        g4_free(a, w->taps);
        g4_free(a, w->rows);
    }
    float *parts[] = { r->mel, r->x, r->q, r->k, r->v, r->glu };
    for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) g4_free(a, parts[p]);
    g4_free(a, r->work);
}

static int g4_audio_run_open(g4_audio_run *r)
{
    const g4_allocator *a = r->e->a;
    const g4_config *c = &r->e->file.config;
    size_t n = (size_t)r->n, hidden = c->a_hidden, tile = G4_AUDIO_TILE, bands = G4_MEL_BANDS / 4;
    size_t flat = bands * c->a_conv1, taps = 9 * (size_t)c->a_conv0;
    size_t widest = 4 * hidden;
    if (flat > widest) widest = flat;
    if (c->a_out > widest) widest = c->a_out;
    if (c->hidden > widest) widest = c->hidden;
    r->wide = g4_tower_stride(widest);
    r->mel = g4_alloc(a, (size_t)r->frames, G4_MEL_BANDS * sizeof(float));
    r->x = g4_alloc(a, n, hidden * sizeof(float));
    r->q = g4_alloc(a, n, hidden * sizeof(float));
    r->k = g4_alloc(a, n, hidden * sizeof(float));
    r->v = g4_alloc(a, n, hidden * sizeof(float));
    r->glu = g4_alloc(a, n, hidden * sizeof(float));
    r->work = g4_alloc(a, (size_t)g4_pool_size(r->e->pool), sizeof *r->work);
    if (!r->mel || !r->x || !r->q || !r->k || !r->v || !r->glu || !r->work) return 0;
    for (int i = 0; i < g4_pool_size(r->e->pool); i++) {
        g4_audio_work *w = &r->work[i];
        w->a = g4_alloc(a, tile, r->wide * sizeof(float));
        w->b = g4_alloc(a, tile, r->wide * sizeof(float));
        w->taps = g4_alloc(a, bands, taps * sizeof(float));
        w->rows = g4_alloc(a, 2 * tile + 1, G4_MEL_BANDS / 2 * c->a_conv0 * sizeof(float));
        if (!g4_linear_work_open(&w->linear, a, (int)(widest > taps ? widest : taps)) || !w->a || !w->b || !w->taps ||
            !w->rows)
            return 0;
    }
    return 1;
}

/* Samples of one block to rows (n, text hidden), n = ceil(frames / 4). The engine's compute lock is held. */
static g4_status g4_audio_forward(g4_engine *e, const g4_audio *block, int n, float *rows, g4_error *err)
{
    const g4_config *c = &e->file.config;
    g4_audio_run r = { .e = e, .tower = e->audio, .block = block, .n = n, .rows = rows };
    r.frames = g4_mel_count(block->n_samples);
    r.half = (r.frames + 1) / 2;
    if (!g4_audio_run_open(&r)) {
        g4_audio_run_close(&r);
        return g4_fail(err, G4_ERR_MEMORY, "encoding %zu samples: out of memory", block->n_samples);
    }
    int tiles = (n + G4_AUDIO_TILE - 1) / G4_AUDIO_TILE;
    g4_mel_open(&r.mel_tables);
    g4_parallel_for(e->pool, (r.frames + G4_AUDIO_TILE - 1) / G4_AUDIO_TILE, g4_audio_mel_piece, &r);
    g4_parallel_for(e->pool, tiles, g4_audio_subsample_piece, &r);
    for (uint32_t i = 0; i < c->a_layers; i++) {
        r.layer = &e->audio->layers[i];
        g4_parallel_for(e->pool, tiles, g4_audio_keys_piece, &r);
        g4_parallel_for(e->pool, tiles, g4_audio_attention_piece, &r);
        g4_parallel_for(e->pool, tiles, g4_audio_conv_piece, &r);
    }
    g4_parallel_for(e->pool, tiles, g4_audio_out_piece, &r);
    g4_audio_run_close(&r);
    return G4_OK;
}

g4_status g4_audio_encode(g4_soft **out, g4_engine *e, const g4_audio *block, g4_error *err)
{
    if (!out) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (!e) return g4_fail(err, G4_ERR_ARGUMENT, "engine is NULL");
    const g4_config *c = &e->file.config;
    if (!e->audio || c->audio_token == 0)
        return g4_fail(err, G4_ERR_UNSUPPORTED, "this model has no audio tower: it cannot hear");
    if (!block || !block->samples) return g4_fail(err, G4_ERR_ARGUMENT, "the sound is empty");
    if (block->n_samples > G4_MEL_MAX_SAMPLES)
        return g4_fail(err, G4_ERR_ARGUMENT,
                       "a block of %zu samples: at most %d (30 s) fit, g4_audio_block cuts longer sound",
                       block->n_samples, G4_MEL_MAX_SAMPLES);
    int n = (g4_mel_count(block->n_samples) + 3) / 4;
    if (n == 0)
        return g4_fail(err, G4_ERR_ARGUMENT,
                       "a sound of %zu samples is too short to be heard: 161 (0.01 s) are the least", block->n_samples);
    uint64_t key[2] = { block->n_samples, (uint64_t)c->audio_token << 32 };
    g4_media_hash(key, block->samples, block->n_samples * sizeof *block->samples);
    if ((*out = g4_soft_find(e, key))) return G4_OK;
    g4_soft *s = g4_soft_new(e, c->audio_token, key, n);
    if (!s) return g4_fail(err, G4_ERR_MEMORY, "%d soft tokens: out of memory", n);
    g4_lock(e);
    g4_status status = g4_audio_forward(e, block, n, s->rows, err);
    g4_unlock(e);
    if (status) {
        g4_soft_release(e, s);
        return status;
    }
    g4_soft_remember(e, s);
    *out = s;
    return G4_OK;
}

/* ---- 13. Sampling --------------------------------------------------------------------------------
 *
 * In: softcapped logits and the timeline. Out: the next token. Order: penalties and bias, mask, temperature, top-k,
 * top-p, min-p. Ties go to the lowest id, and one random number, a function of (seed, position), decides: the same
 * choice whatever was computed before. */

void g4_sampling_recommended(const g4_engine *e, g4_sampling *out)
{
    *out = (g4_sampling) { .temperature = e->file.config.temperature,
                           .top_k = (int)e->file.config.top_k,
                           .top_p = e->file.config.top_p };
}

/* Uniform in [0, 1) from a seed and a position: two rounds of the splitmix64 finaliser. */
static double g4_random(uint64_t seed, uint64_t position)
{
    uint64_t z = seed * UINT64_C(0x9E3779B97F4A7C15) + position;
    for (int round = 0; round < 2; round++) {
        z += UINT64_C(0x9E3779B97F4A7C15);
        z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
        z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
        z ^= z >> 31;
    }
    return (double)(z >> 11) * 0x1p-53;
}

/* Does candidate a come before b? */
static int g4_better(float a_score, g4_token a, float b_score, g4_token b)
{
    return a_score > b_score || (a_score == b_score && a < b);
}

static void g4_heap_down(g4_candidate *heap, int n, int i)
{
    for (;;) { /* the worst stands at the root */
        int worst = i;
        for (int child = 2 * i + 1; child <= 2 * i + 2 && child < n; child++)
            if (g4_better(heap[worst].logprob, heap[worst].token, heap[child].logprob, heap[child].token))
                worst = child;
        if (worst == i) return;
        const g4_candidate swap = heap[i];
        heap[i] = heap[worst];
        heap[worst] = swap;
        i = worst;
    }
}

/* The k best of n scores, best first, in out (k): a heap of the best so far, then sorted. -INFINITY scores never
 * enter. Returns their number. */
static int g4_top(const float *score, int n, int k, g4_candidate *out)
{
    enum { BLOCK = 64 };
    int have = 0;
    for (int i = 0; i < n; i++) {
        if (have == k && i % BLOCK == 0 &&
            i + BLOCK <= n) { /* most blocks have nothing better: one branch for all of them */
            int any = 0;
            for (int j = 0; j < BLOCK; j++) any |= score[i + j] > out[0].logprob;
            if (!any) {
                i += BLOCK - 1;
                continue;
            }
        }
        if (have == k) {
            if (!(score[i] > out[0].logprob)) continue; /* an equal score has a higher id than what is there */
            out[0] = (g4_candidate) { i, score[i] };
            g4_heap_down(out, have, 0);
        } else if (score[i] > -INFINITY) {
            out[have++] = (g4_candidate) { i, score[i] };
            if (have == k)
                for (int j = k / 2 - 1; j >= 0; j--) g4_heap_down(out, k, j);
        }
    }
    if (have < k)
        for (int j = have / 2 - 1; j >= 0; j--) g4_heap_down(out, have, j);
    for (int end = have - 1; end > 0; end--) { /* move the worst behind, again and again */
        const g4_candidate swap = out[0];
        out[0] = out[end];
        out[end] = swap;
        g4_heap_down(out, end, 0);
    }
    return have;
}

static void g4_penalise(const g4_session *s, const g4_sampling *p, int reply_start, float *logits)
{
    const int n_vocab = (int)s->e->file.config.n_vocab;
    if (p->repeat_penalty > 0 && p->repeat_penalty != 1.0f) {
        /* every token of the timeline once */
        memset(s->seen, 0, ((size_t)n_vocab / 32 + 1) * sizeof *s->seen);
        for (int i = 0; i < s->n; i++) {
            const uint32_t id = (uint32_t)s->tokens[i];
            if (s->seen[id / 32] >> (id % 32) & 1) continue;
            s->seen[id / 32] |= 1u << (id % 32);
            logits[id] = logits[id] > 0 ? logits[id] / p->repeat_penalty : logits[id] * p->repeat_penalty;
        }
    }
    if (p->presence_penalty != 0 || p->frequency_penalty != 0) {
        memset(s->seen, 0, ((size_t)n_vocab / 32 + 1) * sizeof *s->seen);
        for (int i = reply_start; i < s->n; i++) {
            const uint32_t id = (uint32_t)s->tokens[i];
            if (!(s->seen[id / 32] >> (id % 32) & 1)) logits[id] -= p->presence_penalty;
            s->seen[id / 32] |= 1u << (id % 32);
            logits[id] -= p->frequency_penalty;
        }
    }
    for (int i = 0; i < p->n_bias; i++)
        if (p->bias[i].token >= 0 && p->bias[i].token < n_vocab) logits[p->bias[i].token] += p->bias[i].bias;
}

static int g4_penalises(const g4_sampling *p)
{
    return (p->repeat_penalty > 0 && p->repeat_penalty != 1.0f) || p->presence_penalty != 0 ||
           p->frequency_penalty != 0 || p->n_bias > 0;
}

/* The next token, or -1 when the mask allows none. few (n_few): all tokens that come into question, ascending, whose
 * logits alone are in s->work; NULL: all are in s->logits, and s->mask counts where `masked`. */
static g4_token g4_sample(g4_session *s, const g4_sampling *p, const g4_token *few, int n_few, int masked,
                          int reply_start)
{
    const int n_vocab = (int)s->e->file.config.n_vocab;
    const float *score = s->logits;
    if (!few && (g4_penalises(p) || masked)) {
        memcpy(s->work, s->logits, (size_t)n_vocab * sizeof *s->work);
        score = s->work;
    }
    if (few || score == s->work) g4_penalise(s, p, reply_start, s->work);
    if (few) { /* side by side, in place: id[i] >= i */
        for (int i = 0; i < n_few; i++) s->work[i] = s->work[few[i]];
        score = s->work;
    } else if (masked) {
        for (int i = 0; i < n_vocab; i++)
            if (!(s->mask[i / 32] >> (i % 32) & 1)) s->work[i] = -INFINITY;
    }
    const int k = p->temperature <= 0 ? 1 : p->top_k > 0 ? g4_min_int(p->top_k, n_vocab) : n_vocab;
    g4_candidate *c = s->candidates;
    int n = g4_top(score, few ? n_few : n_vocab, k, c);
    for (int i = 0; few && i < n; i++) c[i].token = few[c[i].token];
    if (n == 0) return -1;
    if (n == 1 || p->temperature <= 0) return c[0].token;

    double total = 0;
    const float best = c[0].logprob;
    for (int i = 0; i < n; i++) {
        c[i].logprob = expf((c[i].logprob - best) / p->temperature);
        total += (double)c[i].logprob;
    }
    if (p->top_p > 0 && p->top_p < 1) { /* the smallest head whose probability reaches top_p */
        double sum = 0;
        int keep = 0;
        while (keep < n && sum < (double)p->top_p * total) sum += (double)c[keep++].logprob;
        n = keep;
        total = sum;
    }
    if (p->min_p > 0) { /* c[0] has weight 1 */
        int keep = 1;
        total = (double)c[0].logprob;
        while (keep < n && c[keep].logprob >= p->min_p) total += (double)c[keep++].logprob;
        n = keep;
    }
    double u = g4_random(p->seed, (uint64_t)s->n) * total;
    for (int i = 0; i < n; i++) {
        u -= (double)c[i].logprob;
        if (u < 0) return c[i].token;
    }
    return c[n - 1].token;
}

/* log of the sum of exponentials of the softcapped logits: what log-probabilities are relative to. */
static float g4_log_sum(const float *logits, int n)
{
    float most = logits[0];
    for (int i = 1; i < n; i++) most = fmaxf(most, logits[i]);
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)expf(logits[i] - most);
    return most + (float)log(sum);
}

/* ---- 14. Sessions --------------------------------------------------------------------------------
 *
 * A session is a timeline: tokens, the media among them, and the keys and values of every owning layer. All calls end
 * in g4_session_run, which evaluates what has been written into the timeline but not evaluated yet. */

/* Bytes available without swapping, by the system's own estimate and the control group's limit; 0 if unknown. */
static uint64_t g4_available_memory(void)
{
    uint64_t available = 0;
#if defined(__linux__)
    FILE *f = fopen("/proc/meminfo", "re");
    if (!f) return 0;
    char line[128];
    unsigned long long kb;
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %llu kB", &kb) == 1) available = (uint64_t)kb * 1024;
    fclose(f);
    if (g4_read_line("/sys/fs/cgroup/memory.max", line, sizeof line)) {
        const uint64_t limit = strtoull(line, NULL, 10); /* "max" gives 0 */
        if (limit > 0 && limit < available) available = limit;
    }
#endif
    return available;
}

static int g4_plan_ctx(const g4_engine *e, const g4_session_options *opt)
{
    const int most = (int)e->file.config.max_ctx;
    return opt && opt->n_ctx > 0 ? opt->n_ctx : g4_min_int(8192, most);
}

static g4_kv_type g4_plan_kv(const g4_engine *e, const g4_session_options *opt)
{
    switch (opt ? opt->kv : G4_KV_DEFAULT) {
    case G4_KV_USE_F16: return G4_KV_F16;
    case G4_KV_USE_F32: return G4_KV_F32;
    case G4_KV_USE_Q8_0: return G4_KV_Q8_0;
    default: return e->all_f32 ? G4_KV_F32 : G4_KV_F16;
    }
}

static int g4_plan_chunk(const g4_engine *e, const g4_session_options *opt)
{
    return g4_min_int(opt && opt->chunk > 0 ? opt->chunk : 256, e->scratch.cap);
}

static void g4_cache_shape(const g4_engine *e, const g4_layer *l, g4_kv_type kv, g4_cache *c)
{
    c->window = l->cfg.flags & G4_LAYER_FULL ? 0 : (int)e->file.config.window;
    c->n_heads = (int)l->cfg.n_kv_heads;
    c->head_dim = (int)l->cfg.head_dim;
    c->head_bytes = g4_round_up(
        2 * (size_t)c->head_dim * G4_PAGE * g4_kv_size(kv) + (kv == G4_KV_Q8_0 ? 2 * G4_PAGE * sizeof(float) : 0), 64);
    c->page_bytes = (size_t)c->n_heads * c->head_bytes;
}

/* Floats for attention split over spans: one token at full depth, the widest layer. */
static size_t g4_partial_floats(const g4_engine *e, int n_ctx)
{
    size_t dim = 0;
    for (int l = 0; l < (int)e->file.config.n_layers; l++)
        dim = e->weights.layers[l].cfg.head_dim > dim ? e->weights.layers[l].cfg.head_dim : dim;
    return ((size_t)n_ctx / G4_SPAN + 2) * e->file.config.n_heads * (dim + 2);
}

void g4_session_plan(const g4_engine *e, const g4_session_options *opt, g4_memory_plan *out)
{
    memset(out, 0, sizeof *out);
    const int n_ctx = g4_plan_ctx(e, opt), chunk = g4_plan_chunk(e, opt);
    const g4_kv_type kv = g4_plan_kv(e, opt);
    g4_engine_info info;
    g4_engine_get_info(e, &info);
    out->weights = info.decode_bytes;
    out->lookup = info.lookup_bytes;
    for (int l = 0; l < (int)e->file.config.n_layers; l++) {
        if (!e->weights.layers[l].has_kv) continue;
        g4_cache c = { 0 };
        g4_cache_shape(e, &e->weights.layers[l], kv, &c);
        const int held = c.window ? g4_min_int(n_ctx, c.window + chunk + 2 * G4_PAGE) : n_ctx;
        out->kv += (uint64_t)(held / G4_PAGE + 1) * c.page_bytes;
    }
    const uint64_t vocab = e->file.config.n_vocab;
    out->work = e->scratch_bytes + g4_partial_floats(e, n_ctx) * sizeof(float) +
                vocab * (2 * sizeof(float) + sizeof(g4_candidate)) + vocab / 16 * (sizeof(uint32_t) + sizeof(float)) +
                e->file.config.hidden * sizeof(float) + (uint64_t)n_ctx * sizeof(g4_token);
    out->available = g4_available_memory();
}

uint64_t g4_session_bytes(const g4_engine *e, const g4_session_options *opt)
{
    g4_memory_plan plan;
    g4_session_plan(e, opt, &plan);
    return plan.kv + plan.work;
}

void g4_session_close(g4_session *s)
{
    if (!s) return;
    const g4_engine *e = s->e;
    g4_lock(e);
    while (s->n_snapshots > 0) g4_snapshot_drop(s, s->n_snapshots - 1);
    for (int i = 0; s->caches && i < e->n_owners; i++) {
        g4_cache *c = &s->caches[i];
        for (int p = c->first; c->pages && p < c->end; p++) g4_page_release(e, c->pages[p]);
        g4_free(e->a, c->pages);
    }
    for (int i = 0; i < s->n_runs; i++) g4_soft_drop(e, s->runs[i].soft);
    g4_unlock(e);
    g4_free(e->a, s->caches);
    g4_free(e->a, s->snapshots);
    g4_free(e->a, s->runs);
    g4_free(e->a, s->tokens);
    g4_free(e->a, s->state);
    g4_free(e->a, s->logits);
    g4_free(e->a, s->group_max);
    g4_free(e->a, s->work);
    g4_free(e->a, s->candidates);
    g4_free(e->a, s->mask);
    g4_free(e->a, s->seen);
    g4_free(e->a, s->partial);
    g4_free(e->a, s);
}

g4_status g4_session_open(g4_session **out, g4_engine *e, const g4_session_options *opt, g4_error *err)
{
    *out = NULL;
    const g4_config *c = &e->file.config;
    if (c->n_layers == 0) return g4_fail(err, G4_ERR_UNSUPPORTED, "the file holds a tokenizer only");
    const int n_ctx = g4_plan_ctx(e, opt);
    if (n_ctx < 1 || n_ctx > (int)c->max_ctx)
        return g4_fail(err, G4_ERR_ARGUMENT, "context of %d tokens: this model has 1 to %u", n_ctx, c->max_ctx);
    if (opt && (opt->chunk < 0 || (unsigned)opt->kv > G4_KV_USE_Q8_0))
        return g4_fail(err, G4_ERR_ARGUMENT, "chunk %d or kv type %d", opt->chunk, (int)opt->kv);
    g4_memory_plan plan;
    g4_session_plan(e, opt, &plan);
    if (plan.available > 0 && plan.kv + plan.work > plan.available)
        return g4_fail(
            err, G4_ERR_MEMORY,
            "a context of %d tokens needs %.1f MB of memory, %.1f MB are free: choose a smaller context or kv type",
            n_ctx, (double)(plan.kv + plan.work) / 1e6, (double)plan.available / 1e6);

    g4_session *s = g4_alloc(e->a, 1, sizeof *s);
    if (!s) return g4_fail(err, G4_ERR_MEMORY, "no memory for a session");
    s->e = e;
    s->n_ctx = n_ctx;
    s->kv = g4_plan_kv(e, opt);
    s->chunk = g4_plan_chunk(e, opt);
    s->snapshot_budget = opt && opt->snapshot_bytes ? opt->snapshot_bytes : UINT64_C(512) << 20;
    s->progress = opt ? opt->progress : NULL;
    s->user = opt ? opt->user : NULL;
    s->partial_floats = g4_partial_floats(e, n_ctx);
    const size_t vocab = g4_round_up(c->n_vocab, 16);
    s->tokens = g4_alloc(e->a, (size_t)n_ctx, sizeof *s->tokens);
    s->state = g4_alloc(e->a, c->hidden, sizeof *s->state);
    s->logits = g4_alloc(e->a, vocab, sizeof *s->logits);
    s->group_max = g4_alloc(e->a, vocab / 16, sizeof *s->group_max);
    s->work = g4_alloc(e->a, vocab, sizeof *s->work);
    s->candidates = g4_alloc(e->a, vocab, sizeof *s->candidates);
    s->mask = g4_alloc(e->a, vocab / 32 + 1, sizeof *s->mask);
    s->seen = g4_alloc(e->a, vocab / 32 + 1, sizeof *s->seen);
    s->partial = g4_alloc(e->a, s->partial_floats, sizeof *s->partial);
    s->caches = g4_alloc(e->a, (size_t)e->n_owners, sizeof *s->caches);
    int ok = s->tokens && s->state && s->logits && s->group_max && s->work && s->candidates && s->mask && s->seen &&
             s->partial && s->caches;
    for (int l = 0; l < (int)c->n_layers && ok; l++) {
        const g4_layer *w = &e->weights.layers[l];
        if (!w->has_kv) continue;
        g4_cache *cache = &s->caches[w->slot];
        g4_cache_shape(e, w, s->kv, cache);
        cache->pages = g4_alloc(e->a, (size_t)n_ctx / G4_PAGE + 1, sizeof *cache->pages);
        ok = cache->pages != NULL;
    }
    if (!ok) {
        g4_session_close(s);
        return g4_fail(err, G4_ERR_MEMORY, "no memory for the tables of a session of %d tokens", n_ctx);
    }
    *out = s;
    return G4_OK;
}

int g4_session_n(const g4_session *s) { return s->n; }
int g4_session_n_ctx(const g4_session *s) { return s->n_ctx; }
const g4_token *g4_session_tokens(const g4_session *s) { return s->tokens; }
uint64_t g4_session_n_evaluated(const g4_session *s) { return s->n_evaluated; }

/* The last position <= n that does not lie inside the soft tokens of one picture or sound. */
static int g4_outside_runs(const g4_run *runs, int n_runs, int n)
{
    for (int i = n_runs - 1; i >= 0; i--)
        if (runs[i].pos < n && n < runs[i].pos + runs[i].soft->n) n = runs[i].pos;
    return n;
}

static void g4_drop_runs(g4_session *s, int n)
{
    while (s->n_runs > 0 && s->runs[s->n_runs - 1].pos >= n) g4_soft_drop(s->e, s->runs[--s->n_runs].soft);
}

/* Cut the timeline to at most n positions without evaluating anything; with the lock held. Returns the position
 * reached: n itself when the windows still hold what its last token saw, else the nearest snapshot
 * before it, else 0. */
static int g4_go_back(g4_session *s, int n)
{
    n = g4_outside_runs(s->runs, s->n_runs, n);
    if (n >= s->n) return s->n;
    while (s->n_snapshots > 0 && s->snapshots[s->n_snapshots - 1].pos > n) g4_snapshot_drop(s, s->n_snapshots - 1);
    int held = 1;
    for (int i = 0; i < s->e->n_owners; i++) {
        const g4_cache *c = &s->caches[i];
        if (c->window && c->first * G4_PAGE > g4_window_start(n, c->window)) held = 0;
    }
    if (!held && s->n_snapshots > 0) {
        g4_snapshot_restore(s, s->n_snapshots - 1);
    } else {
        if (!held) n = 0;
        for (int i = 0; i < s->e->n_owners; i++) g4_cache_truncate(s->e, &s->caches[i], n);
        s->n = n;
        s->ready = G4_READY_NOTHING;
    }
    g4_drop_runs(s, s->n);
    return s->n;
}

/* End of the chunk that starts at `from` in a timeline of `to` tokens: two-way picture blocks are not split. */
static int g4_chunk_end(const g4_session *s, int from, int to)
{
    const g4_config *c = &s->e->file.config;
    const int end = g4_min_int(from + s->chunk, to);
    if (!(c->flags & G4_CONFIG_IMAGE_BIDIR) || end == to) return end;
    for (int i = 0; i < s->n_runs; i++) {
        const int first = s->runs[i].pos;
        if ((uint32_t)s->runs[i].soft->token == c->audio_token) continue;
        int last = first + s->runs[i].soft->n; /* of the block: adjacent runs belong to it */
        while (i + 1 < s->n_runs && s->runs[i + 1].pos == last &&
               (uint32_t)s->runs[i + 1].soft->token != c->audio_token)
            last += s->runs[++i].soft->n;
        if (first < end && end < last) return first > from ? first : last;
    }
    return end;
}

/* Logits (n, stride) behind final states (n, hidden), as g4_logits_run leaves them; n <= G4_LOGIT_ROWS. */
static void g4_session_head(g4_session *s, const float *states, int n, float *logits, size_t stride, float *group_max)
{
    g4_engine *e = s->e;
    const size_t hidden = e->file.config.hidden;
    const g4_chunk chunk = { .e = e, .s = s, .n = n, .n_full = n };
    g4_lock(e);
    for (int i = 0; i < n; i++)
        memcpy(e->scratch.x + (size_t)i * e->scratch.normed.x_stride, states + (size_t)i * hidden,
               hidden * sizeof *states);
    g4_logits_run(&chunk, 0, n, logits, stride, group_max);
    s->n_head_rows += (uint64_t)n * e->file.config.n_vocab;
    g4_unlock(e);
}

#define G4_FEW 1024 /* allowed tokens up to which only their groups of rows are computed */

/* The same for some tokens (n, ascending, at most G4_FEW) of the last position; other logits are left as they are. */
static void g4_session_head_some(g4_session *s, const g4_token *id, int n, float *logits)
{
    g4_engine *e = s->e;
    int group[G4_FEW];
    const g4_chunk chunk = { .e = e, .s = s, .n = 1, .n_full = 1 };
    g4_head_some job = { &chunk, logits, group, 0, g4_piece_groups(e, &e->weights.head, 1) };
    for (int i = 0; i < n; i++)
        if (job.n == 0 || group[job.n - 1] != id[i] / 16) group[job.n++] = id[i] / 16;
    g4_lock(e);
    memcpy(e->scratch.x, s->state, e->file.config.hidden * sizeof *s->state);
    g4_norm_input(&chunk, 0, e->weights.norm);
    g4_parallel_for(e->pool, (job.n + job.per_piece - 1) / job.per_piece, g4_head_some_piece, &job);
    s->n_head_rows += 16 * (uint64_t)job.n;
    g4_unlock(e);
}

uint64_t g4_session_n_head_rows(const g4_session *s) { return s->n_head_rows; }

/* Evaluate positions [s->n, to) of the timeline, whose tokens and runs are in place. row: logits of every position.
 * states: final states (n_states, hidden) of the last n_states positions, and no logits. Neither: raw logits of the
 * last position. On failure the timeline is cut back to where it was. */
static g4_status g4_session_run(g4_session *s, int to, g4_logits_row_fn row, void *user, float *states, int n_states,
                                g4_error *err)
{
    g4_engine *e = s->e;
    const int start = s->n, total = to - start;
    g4_status status = G4_OK;
    int guard = 0; /* a snapshot of the start, taken here */
    g4_lock(e);
    if (total > s->chunk && start > 0) {
        const int before = s->n_snapshots > 0 ? s->snapshots[s->n_snapshots - 1].pos : -1;
        status = g4_snapshot_take(s, err);
        guard = !status && before != start;
    }
    while (!status && s->n < to) {
        const int end = g4_chunk_end(s, s->n, to), n = end - s->n;
        if (n > e->scratch.cap) {
            status = g4_fail(err, G4_ERR_UNSUPPORTED, "a picture block of %d positions: at most %d", n, e->scratch.cap);
            break;
        }
        status = g4_session_reserve(s, n, err);
        if (status) break;
        const int n_full = row ? n : states ? g4_min_int(g4_max_int(end - to + n_states, 0), n) : end == to;
        g4_chunk chunk = { .e = e, .s = s, .tokens = s->tokens + s->n, .pos = s->n, .n = n, .n_full = n_full };
        g4_forward(&chunk);
        for (int i = 0; states && i < n_full; i++)
            memcpy(states + (size_t)(end - n_full + i - to + n_states) * e->file.config.hidden,
                   e->scratch.x + (size_t)(n - n_full + i) * e->scratch.normed.x_stride,
                   e->file.config.hidden * sizeof *states);
        s->n_evaluated += (uint64_t)n;
        const size_t vocab = g4_round_up(e->file.config.n_vocab, 16);
        for (int t = 0; row && t < n && !status; t += G4_LOGIT_ROWS) {
            const int rows = g4_min_int(G4_LOGIT_ROWS, n - t);
            g4_logits_run(&chunk, t, rows, e->scratch.logits, vocab, NULL);
            s->n_head_rows += (uint64_t)rows * e->file.config.n_vocab;
            for (int i = 0; i < rows && !status; i++)
                if (row(user, s->n - start + t + i, e->scratch.logits + (size_t)i * vocab))
                    status = g4_fail(err, G4_ERR_CANCELED, "stopped by the caller after %d of %d tokens",
                                     s->n - start + t + i + 1, total);
            if (t + rows == n && end == to)
                memcpy(s->logits, e->scratch.logits + (size_t)(rows - 1) * vocab, vocab * sizeof *s->logits);
        }
        if (!row && !states && end == to) {
            g4_logits_run(&chunk, n - 1, 1, s->logits, vocab, s->group_max);
            s->n_head_rows += e->file.config.n_vocab;
        }
        if (status) break;
        s->n = end;
        g4_session_slide(s);
        if (s->progress && total > 1) {
            g4_unlock(e);
            const int stop = s->progress(s->user, (uint64_t)(s->n - start), (uint64_t)total);
            g4_lock(e);
            if (stop && s->n < to)
                status = g4_fail(err, G4_ERR_CANCELED, "canceled after %d of %d tokens", s->n - start, total);
        }
    }
    if (status) {
        const g4_readiness ready = s->ready;
        s->n = to; /* so that everything after `start` is cut, runs included */
        if (guard || (s->n_snapshots > 0 && s->snapshots[s->n_snapshots - 1].pos == start && total > s->chunk)) {
            g4_snapshot_restore(s, s->n_snapshots - 1);
        } else {
            for (int i = 0; i < e->n_owners; i++) g4_cache_truncate(e, &s->caches[i], start);
            s->n = start;
        }
        g4_drop_runs(s, start);
        s->ready = ready;
    } else {
        s->ready = states ? G4_READY_NOTHING : row ? G4_READY_LOGITS : G4_READY_RAW;
    }
    if (guard) g4_snapshot_drop(s, s->n_snapshots - 1);
    g4_unlock(e);
    return status;
}

/* Check and append part of a prompt: its tokens from `from` on, with the runs that start there. */
static g4_status g4_session_append(g4_session *s, const g4_prompt *p, int from, g4_logits_row_fn row, void *user,
                                   g4_error *err)
{
    g4_engine *e = s->e;
    const g4_config *c = &e->file.config;
    const int n = p->n - from;
    if (n < 0 || (n > 0 && !p->tokens)) return g4_fail(err, G4_ERR_ARGUMENT, "%d tokens", p->n);
    if (n == 0) return G4_OK;
    if (n > s->n_ctx - s->n)
        return g4_fail(err, G4_ERR_CONTEXT, "%d tokens after %d do not fit in the context of %d", n, s->n, s->n_ctx);
    for (int i = from; i < p->n; i++)
        if (p->tokens[i] < 0 || (uint32_t)p->tokens[i] >= c->n_vocab)
            return g4_fail(err, G4_ERR_ARGUMENT, "token %d is %d: the vocabulary has ids 0 to %u", i, (int)p->tokens[i],
                           c->n_vocab - 1);
    int n_runs = 0, free_from = from;
    for (int i = 0; i < p->n_runs; i++) {
        const g4_run *r = &p->runs[i];
        if (r->pos + r->soft->n <= from) continue;
        if (r->pos < free_from || r->soft->n > p->n - r->pos)
            return g4_fail(err, G4_ERR_ARGUMENT, "media %d: its %d soft tokens at %d overlap or leave the prompt", i,
                           r->soft->n, r->pos);
        for (int t = r->pos; t < r->pos + r->soft->n; t++)
            if (p->tokens[t] != r->soft->token)
                return g4_fail(err, G4_ERR_ARGUMENT, "media %d: token %d is %d, expected its placeholder %d", i, t,
                               (int)p->tokens[t], (int)r->soft->token);
        free_from = r->pos + r->soft->n;
        n_runs++;
    }
    if (s->n_runs + n_runs > s->cap_runs) {
        g4_run *grown = g4_realloc(e->a, s->runs, (size_t)s->n_runs + (size_t)n_runs, sizeof *grown);
        if (!grown) return g4_fail(err, G4_ERR_MEMORY, "no memory for %d media", s->n_runs + n_runs);
        s->runs = grown;
        s->cap_runs = s->n_runs + n_runs;
    }
    for (int i = 0; i < p->n_runs; i++) {
        if (p->runs[i].pos < from) continue;
        g4_soft_retain(e, p->runs[i].soft);
        s->runs[s->n_runs++] = (g4_run) { s->n + p->runs[i].pos - from, p->runs[i].soft };
    }
    memmove(s->tokens + s->n, p->tokens + from, (size_t)n * sizeof *s->tokens); /* a rewind appends its own tokens */
    return g4_session_run(s, s->n + n, row, user, NULL, 0, err);
}

g4_status g4_session_eval_prompt(g4_session *s, const g4_prompt *prompt, g4_error *err)
{
    return g4_session_append(s, prompt, 0, NULL, NULL, err);
}

g4_status g4_session_eval(g4_session *s, const g4_token *tokens, int n, g4_error *err)
{
    const g4_prompt p = { tokens, n, NULL, 0 };
    return g4_session_append(s, &p, 0, NULL, NULL, err);
}

g4_status g4_session_eval_all(g4_session *s, const g4_prompt *prompt, g4_logits_row_fn row, void *user, g4_error *err)
{
    return g4_session_append(s, prompt, 0, row, user, err);
}

g4_status g4_session_eval_text(g4_session *s, const char *text, size_t len, g4_error *err)
{
    g4_engine *e = s->e;
    g4_tokens ids = { NULL, 0, 0 };
    g4_status status = g4_tokenizer_encode(&e->tokenizer, e->a, text, len ? len : strlen(text), 0, &ids, err);
    if (!status && s->n == 0) {
        g4_token *all = g4_alloc(e->a, ids.n + 1, sizeof *all);
        if (all) {
            all[0] = (g4_token)e->file.config.bos;
            if (ids.n > 0) memcpy(all + 1, ids.ids, ids.n * sizeof *all);
            g4_free(e->a, ids.ids);
            ids.ids = all;
            ids.n++;
        } else {
            status = g4_fail(err, G4_ERR_MEMORY, "no memory for %zu tokens", ids.n + 1);
        }
    }
    if (!status && ids.n > (size_t)s->n_ctx)
        status = g4_fail(err, G4_ERR_CONTEXT, "%zu tokens do not fit in the context of %d", ids.n, s->n_ctx);
    if (!status) status = g4_session_eval(s, ids.ids, (int)ids.n, err);
    g4_free(e->a, ids.ids);
    return status;
}

/* Logits of the last position, raw or softcapped: the head behind its final state, or, when only its keys and values
 * are there, that token evaluated once more: the same bits. */
static g4_status g4_session_raw(g4_session *s, g4_error *err)
{
    if (s->n == 0 || s->ready >= G4_READY_RAW) return G4_OK;
    if (s->ready == G4_READY_STATE) {
        g4_session_head(s, s->state, 1, s->logits, g4_round_up(s->e->file.config.n_vocab, 16), s->group_max);
        s->ready = G4_READY_RAW;
        return G4_OK;
    }
    const int n = s->n;
    s->n = n - 1;
    const g4_status status = g4_session_run(s, n, NULL, NULL, NULL, 0, err);
    s->n = n;
    return status;
}

/* Softcapped logits of the last position. */
static g4_status g4_session_refresh(g4_session *s, g4_error *err)
{
    const g4_status status = g4_session_raw(s, err);
    if (status || s->ready != G4_READY_RAW) return status;
    g4_lock(s->e);
    g4_softcap_run(s->e, s->logits);
    g4_unlock(s->e);
    s->ready = G4_READY_LOGITS;
    return G4_OK;
}

/* The tokens that may be among the k best, in id (at most G4_FEW, ascending), and their softcapped logits in s->work;
 * without a look at the others. 0: look at all.
 *
 * Raw logits keep their order under softcap unless they are so near that they round alike, or change places by the
 * kernel's error, 2^-21 cap. Up to 4 cap tanh(x / cap) rises by sech(4)^2 = 1 / 746 at least, so G4_CAP_NEAR of the cap
 * apart they keep it. */
#define G4_CAP_FAR 4.0f
#define G4_CAP_NEAR 0x1p-10f
static int g4_session_candidates(g4_session *s, int k, g4_token *id)
{
    const int n_vocab = (int)s->e->file.config.n_vocab, n_groups = (n_vocab + 15) / 16;
    const float cap = s->e->file.config.softcap;
    float score[G4_FEW];
    if (s->ready != G4_READY_RAW || k > G4_FEW / 4 || g4_top(s->group_max, n_groups, k, s->candidates) < k) return 0;
    const float most = s->candidates[0].logprob, least = s->candidates[k - 1].logprob; /* k logits are that large */
    if (cap != 0 && !(most <= G4_CAP_FAR * cap && least >= -G4_CAP_FAR * cap)) return 0;
    const float bar = least - G4_CAP_NEAR * cap;
    int n = 0;
    for (int g = 0; g < n_groups; g++) {
        if (s->group_max[g] < bar) continue;
        for (int i = 16 * g; i < g4_min_int(16 * g + 16, n_vocab); i++) {
            if (!(s->logits[i] >= bar)) continue;
            if (n == G4_FEW) return 0;
            score[n] = s->logits[i];
            id[n++] = i;
        }
    }
    if (cap != 0) s->e->kernels->softcap(score, n, cap);
    for (int i = 0; i < n; i++) s->work[id[i]] = score[i];
    return n;
}

const float *g4_session_logits(g4_session *s)
{
    if (s->n == 0 || g4_session_refresh(s, NULL)) return NULL;
    return s->logits;
}

static const g4_run *g4_run_at(const g4_run *runs, int n_runs, int pos)
{
    for (int i = 0; i < n_runs; i++)
        if (runs[i].pos <= pos && pos < runs[i].pos + runs[i].soft->n) return &runs[i];
    return NULL;
}

/* Positions at which timeline and prompt agree: ids, and for soft tokens the same media at the same place. */
static int g4_common_prefix(const g4_session *s, const g4_prompt *p)
{
    int n = 0;
    while (n < s->n && n < p->n && s->tokens[n] == p->tokens[n]) n++;
    for (int i = 0; i < s->n_runs || i < p->n_runs; i++) {
        const g4_run *a = i < s->n_runs ? &s->runs[i] : NULL, *b = i < p->n_runs ? &p->runs[i] : NULL;
        if (a && b && a->pos == b->pos && a->soft->n == b->soft->n &&
            memcmp(a->soft->key, b->soft->key, sizeof a->soft->key) == 0)
            continue;
        const int differ = g4_min_int(a ? a->pos : INT_MAX, b ? b->pos : INT_MAX);
        return g4_min_int(n, differ);
    }
    return n;
}

g4_status g4_session_sync(g4_session *s, const g4_prompt *prompt, int *reused, g4_error *err)
{
    if (reused) *reused = 0;
    if (prompt->n > s->n_ctx)
        return g4_fail(err, G4_ERR_CONTEXT, "a prompt of %d tokens does not fit in the context of %d", prompt->n,
                       s->n_ctx);
    int common = g4_common_prefix(s, prompt);
    if (g4_run_at(prompt->runs, prompt->n_runs, common)) common = g4_outside_runs(prompt->runs, prompt->n_runs, common);
    g4_lock(s->e);
    int at = g4_go_back(s, common);
    g4_unlock(s->e);
    const uint64_t before = s->n_evaluated;
    const g4_status status =
        at < prompt->n ? g4_session_append(s, prompt, at, NULL, NULL, err) : g4_session_raw(s, err);
    if (reused && !status) *reused = prompt->n - (int)(s->n_evaluated - before);
    return status;
}

g4_status g4_session_rewind(g4_session *s, int n, g4_error *err)
{
    if (n < 0 || n > s->n)
        return g4_fail(err, G4_ERR_ARGUMENT, "cannot go back to %d: the timeline has %d tokens", n, s->n);
    n = g4_outside_runs(s->runs, s->n_runs, n);
    /* what lies between the position reached and n is evaluated again: its media must outlive the cut */
    int n_runs = 0;
    while (n_runs < s->n_runs && s->runs[n_runs].pos + s->runs[n_runs].soft->n <= n) n_runs++;
    g4_run *runs = n_runs ? g4_alloc(s->e->a, (size_t)n_runs, sizeof *runs) : NULL;
    if (n_runs && !runs) return g4_fail(err, G4_ERR_MEMORY, "no memory for %d media", n_runs);
    g4_lock(s->e);
    for (int i = 0; i < n_runs; i++) {
        runs[i] = s->runs[i];
        runs[i].soft->refs++;
    }
    const int at = g4_go_back(s, n);
    g4_unlock(s->e);
    const g4_prompt p = { s->tokens, n, runs, n_runs };
    const g4_status status = at < n ? g4_session_append(s, &p, at, NULL, NULL, err) : g4_session_raw(s, err);
    g4_lock(s->e);
    for (int i = 0; i < n_runs; i++) g4_soft_drop(s->e, runs[i].soft);
    g4_unlock(s->e);
    g4_free(s->e->a, runs);
    return status;
}

g4_status g4_session_mark(g4_session *s, g4_error *err)
{
    g4_lock(s->e);
    const g4_status status = s->n > 0 ? g4_snapshot_take(s, err) : G4_OK;
    g4_unlock(s->e);
    return status;
}

static g4_session_options g4_session_options_of(const g4_session *s)
{
    static const g4_kv_choice choice[] = {
        [G4_KV_F16] = G4_KV_USE_F16, [G4_KV_F32] = G4_KV_USE_F32, [G4_KV_Q8_0] = G4_KV_USE_Q8_0
    };
    return (g4_session_options) { s->n_ctx, choice[s->kv], s->chunk, s->snapshot_budget, s->progress, s->user };
}

g4_status g4_session_fork(g4_session **out, const g4_session *s, g4_error *err)
{
    g4_engine *e = s->e;
    const g4_session_options opt = g4_session_options_of(s);
    g4_status status = g4_session_open(out, e, &opt, err);
    if (status) return status;
    g4_session *f = *out;
    f->runs = s->n_runs ? g4_alloc(e->a, (size_t)s->n_runs, sizeof *f->runs) : NULL;
    if (s->n_runs && !f->runs) {
        g4_session_close(f);
        *out = NULL;
        return g4_fail(err, G4_ERR_MEMORY, "no memory for %d media", s->n_runs);
    }
    f->cap_runs = s->n_runs;
    memcpy(f->tokens, s->tokens, (size_t)s->n * sizeof *f->tokens);
    memcpy(f->logits, s->logits, e->file.config.n_vocab * sizeof *f->logits);
    memcpy(f->group_max, s->group_max, (e->file.config.n_vocab + 15) / 16 * sizeof *f->group_max);
    memcpy(f->state, s->state, e->file.config.hidden * sizeof *f->state);
    f->ready = s->ready;
    f->n = s->n;
    g4_lock(e);
    for (int i = 0; i < s->n_runs; i++) {
        f->runs[f->n_runs++] = s->runs[i];
        s->runs[i].soft->refs++;
    }
    for (int i = 0; i < e->n_owners; i++) {
        const g4_cache *from = &s->caches[i];
        g4_cache *to = &f->caches[i];
        to->first = from->first;
        to->end = from->end;
        for (int p = from->first; p < from->end; p++) {
            to->pages[p] = from->pages[p];
            to->pages[p]->refs++;
            to->pages[p]->forked = 1;
        }
    }
    g4_unlock(e);
    return G4_OK;
}

/* ---- 15. Saved state -------------------------------------------------------------------------------
 *
 * Little-endian: magic "G4STATE1", u32 version, u32 byte order mark, u64 fingerprint of the model, u32 kv type, u32
 * n, u32 n_runs, u32 n_owners; n token ids (i32); per run: u32 pos, u32 placeholder id, u32 n, u32 0, u64 key[2],
 * then (n, hidden) f32; per owner: u32 first page, u32 end, then the pages; at the end u64 checksum of all before.
 * The last token is evaluated again on loading. */

#define G4_STATE_MAGIC "G4STATE1"
#define G4_STATE_VERSION 1u

typedef struct {
    char magic[8];
    uint32_t version, endian;
    uint64_t fingerprint;
    uint32_t kv, n, n_runs, n_owners;
} g4_state_header;
typedef struct {
    uint32_t pos, token, n, zero;
    uint64_t key[2];
} g4_state_run;

typedef struct {
    g4_write_fn write;
    g4_read_fn read;
    void *user;
    uint64_t sum;
    g4_error *err;
    g4_status status;
} g4_state_io;

static void g4_state_put(g4_state_io *io, const void *data, size_t n)
{
    if (io->status) return;
    io->sum = g4_checksum_step(io->sum, g4_checksum(data, n));
    if (io->write(io->user, data, n)) io->status = g4_fail(io->err, G4_ERR_IO, "writing the session failed");
}

static void g4_state_get(g4_state_io *io, void *data, size_t n)
{
    if (io->status) return;
    if (io->read(io->user, data, n))
        io->status = g4_fail(io->err, G4_ERR_IO, "the saved session cannot be read, or is truncated");
    else
        io->sum = g4_checksum_step(io->sum, g4_checksum(data, n));
}

/* Tells models apart: configuration, tokenizer and table by their checksum, and the first 4 KB of every tensor. */
static uint64_t g4_engine_fingerprint(g4_engine *e)
{
    g4_lock(e);
    if (e->fingerprint == 0) {
        g4_file_header h;
        memcpy(&h, e->file.data, sizeof h);
        uint64_t sum = h.checksum;
        for (int i = 0; i < e->file.n_tensors; i++) {
            const g4_tensor_entry *t = &e->file.table[i];
            sum = g4_checksum_step(sum, g4_checksum(e->file.data + t->offset, t->size < 4096 ? (size_t)t->size : 4096));
        }
        e->fingerprint = sum | 1;
    }
    const uint64_t fingerprint = e->fingerprint;
    g4_unlock(e);
    return fingerprint;
}

g4_status g4_session_save(const g4_session *s, g4_write_fn write, void *user, g4_error *err)
{
    const g4_engine *e = s->e;
    g4_state_io io = { .write = write, .user = user, .err = err };
    const g4_state_header h = { G4_STATE_MAGIC,  G4_STATE_VERSION, G4_FILE_ENDIAN,      g4_engine_fingerprint(s->e),
                                (uint32_t)s->kv, (uint32_t)s->n,   (uint32_t)s->n_runs, (uint32_t)e->n_owners };
    g4_state_put(&io, &h, sizeof h);
    g4_state_put(&io, s->tokens, (size_t)s->n * sizeof *s->tokens);
    for (int i = 0; i < s->n_runs; i++) {
        const g4_soft *soft = s->runs[i].soft;
        const g4_state_run r = {
            (uint32_t)s->runs[i].pos, (uint32_t)soft->token, (uint32_t)soft->n, 0, { soft->key[0], soft->key[1] }
        };
        g4_state_put(&io, &r, sizeof r);
        g4_state_put(&io, soft->rows, (size_t)soft->n * e->file.config.hidden * sizeof *soft->rows);
    }
    for (int i = 0; i < e->n_owners; i++) {
        const g4_cache *c = &s->caches[i];
        const uint32_t range[2] = { (uint32_t)c->first, (uint32_t)c->end };
        g4_state_put(&io, range, sizeof range);
        for (int p = c->first; p < c->end; p++) g4_state_put(&io, c->pages[p]->data, c->page_bytes);
    }
    const uint64_t sum = io.sum;
    g4_state_put(&io, &sum, sizeof sum);
    return io.status;
}

static g4_status g4_state_load_runs(g4_session *s, g4_state_io *io, uint32_t n_runs)
{
    g4_engine *e = s->e;
    const uint32_t hidden = e->file.config.hidden;
    uint32_t free_from = 0;
    s->runs = g4_alloc(e->a, (size_t)n_runs + 1, sizeof *s->runs);
    if (!s->runs) return g4_fail(io->err, G4_ERR_MEMORY, "no memory for %u media", n_runs);
    s->cap_runs = (int)n_runs + 1;
    for (uint32_t i = 0; i < n_runs && !io->status; i++) {
        g4_state_run r = { 0 };
        g4_state_get(io, &r, sizeof r);
        if (io->status) break;
        if (r.pos < free_from || r.n < 1 || r.n > (uint32_t)s->n || r.pos > (uint32_t)s->n - r.n ||
            r.token >= e->file.config.n_vocab)
            return g4_fail(io->err, G4_ERR_FORMAT, "saved session: media %u at %u lies outside", i, r.pos);
        free_from = r.pos + r.n;
        g4_soft *soft = g4_alloc(e->a, 1, sizeof *soft);
        if (!soft) return g4_fail(io->err, G4_ERR_MEMORY, "no memory for media %u", i);
        *soft = (g4_soft) {
            1, (g4_token)r.token, { r.key[0], r.key[1] }, (int)r.n, g4_alloc(e->a, (size_t)r.n * hidden, sizeof(float))
        };
        s->runs[s->n_runs++] = (g4_run) { (int)r.pos, soft };
        if (!soft->rows) return g4_fail(io->err, G4_ERR_MEMORY, "no memory for media %u", i);
        g4_state_get(io, soft->rows, (size_t)r.n * hidden * sizeof *soft->rows);
    }
    return io->status;
}

static g4_status g4_state_load_pages(g4_session *s, g4_state_io *io)
{
    for (int i = 0; i < s->e->n_owners && !io->status; i++) {
        g4_cache *c = &s->caches[i];
        uint32_t range[2] = { 0, 0 };
        g4_state_get(io, range, sizeof range);
        if (io->status) break;
        const uint32_t end = (uint32_t)((s->n + G4_PAGE - 1) / G4_PAGE);
        if (range[1] != end || range[0] > range[1] ||
            range[0] * G4_PAGE > (uint32_t)(c->window ? g4_window_start(s->n, c->window) : 0))
            return g4_fail(io->err, G4_ERR_FORMAT, "saved session: pages %u to %u of cache %d do not hold %d positions",
                           range[0], range[1], i, s->n);
        c->first = c->end = (int)range[0];
        for (; c->end < (int)range[1] && !io->status; c->end++) {
            if (!(c->pages[c->end] = g4_page_new(s->e, c->page_bytes)))
                return g4_fail(io->err, G4_ERR_MEMORY, "no memory for keys and values");
            g4_state_get(io, c->pages[c->end]->data, c->page_bytes);
        }
    }
    return io->status;
}

g4_status g4_session_load(g4_session **out, g4_engine *e, const g4_session_options *opt, g4_read_fn read, void *user,
                          g4_error *err)
{
    *out = NULL;
    g4_state_io io = { .read = read, .user = user, .err = err };
    g4_state_header h;
    g4_state_get(&io, &h, sizeof h);
    if (io.status) return io.status;
    if (memcmp(h.magic, G4_STATE_MAGIC, sizeof h.magic) != 0 || h.endian != G4_FILE_ENDIAN)
        return g4_fail(err, G4_ERR_FORMAT, "not a saved session");
    if (h.version != G4_STATE_VERSION)
        return g4_fail(err, G4_ERR_VERSION, "saved session of version %u, this library reads version %u", h.version,
                       G4_STATE_VERSION);
    if (h.fingerprint != g4_engine_fingerprint(e) || h.n_owners != (uint32_t)e->n_owners)
        return g4_fail(err, G4_ERR_MISMATCH, "this session was saved with another model");
    g4_session *s;
    g4_status status = g4_session_open(&s, e, opt, err);
    if (status) return status;
    if (h.kv != (uint32_t)s->kv) {
        status = g4_fail(err, G4_ERR_MISMATCH, "this session was saved with another key/value type (%u, not %u)", h.kv,
                         (unsigned)s->kv);
    } else if (h.n > (uint32_t)s->n_ctx) {
        status = g4_fail(err, G4_ERR_CONTEXT, "the saved session has %u tokens, the context %d", h.n, s->n_ctx);
    } else if (h.n_runs > h.n) {
        status = g4_fail(err, G4_ERR_FORMAT, "saved session: %u media in %u tokens", h.n_runs, h.n);
    } else {
        s->n = (int)h.n;
        g4_state_get(&io, s->tokens, (size_t)s->n * sizeof *s->tokens);
        status = io.status;
        for (int i = 0; i < s->n && !status; i++)
            if ((uint32_t)s->tokens[i] >= e->file.config.n_vocab)
                status = g4_fail(err, G4_ERR_FORMAT, "saved session: token %d is %d", i, (int)s->tokens[i]);
        if (!status) status = g4_state_load_runs(s, &io, h.n_runs);
        if (!status) status = g4_state_load_pages(s, &io);
        const uint64_t expected = io.sum;
        uint64_t sum = 0;
        if (!status) g4_state_get(&io, &sum, sizeof sum);
        if (!status) status = io.status;
        if (!status && sum != expected) status = g4_fail(err, G4_ERR_FORMAT, "the saved session is damaged (checksum)");
        if (!status) status = g4_session_raw(s, err);
    }
    if (status)
        g4_session_close(s);
    else
        *out = s;
    return status;
}

/* ---- 16. Generation --------------------------------------------------------------------------------
 *
 * Choose, tell, append, until something ends the reply. What was chosen is evaluated as late as possible: where a
 * constraint leaves one token only, that is after it, so that tokens in a row that had to come are read together and
 * skip what a prompt skips. */

#define G4_GUARD_TOKENS                                                                                                \
    64 /* repeated tokens that count as runaway: 64 equal ones, or 8 equal blocks that fill as many */
#define G4_GUARD_BLOCKS 8
#define G4_GUARD_PERIOD 256 /* longest block looked for */
#define G4_MAX_TOP 64
#define G4_DRAFT_MAX 7        /* drafted tokens evaluated together with a chosen one */
#define G4_DRAFT_MATCH 3      /* tokens in a row that must have stood before */
#define G4_DRAFT_REST 8       /* tokens without drafts after they did not pay, doubled each time ... */
#define G4_DRAFT_REST_MAX 128 /* ... up to this */
#define G4_WAIT_MAX 32        /* tokens chosen without logits that are evaluated together */

const char *g4_stop_name(g4_stop stop)
{
    switch (stop) {
    case G4_STOP_END: return "stop";
    case G4_STOP_MAX_TOKENS: return "length";
    case G4_STOP_STRING: return "stop_string";
    case G4_STOP_CALLBACK: return "callback";
    case G4_STOP_CONTEXT: return "context";
    case G4_STOP_REPEAT: return "repetition";
    case G4_STOP_CONSTRAINT: return "constraint";
    }
    return "unknown";
}

typedef struct {
    g4_session *s;
    const g4_generate_options *opt;
    int start; /* of the reply in the timeline */
    g4_utf8 utf8;
    g4_buf pending;                /* complete characters not yet output: they may begin a stop string */
    int same[G4_GUARD_PERIOD + 1]; /* tokens in a row equal to the one `period` before */
    g4_candidate top[G4_MAX_TOP];
    int waiting; /* chosen tokens behind the timeline that are not evaluated yet: no logits were needed since */
    /* drafting: positions past the timeline that are evaluated already, with tokens that were guessed */
    float *states;  /* (1 + G4_DRAFT_MAX, hidden): final states behind the chosen token and each guess, or NULL */
    float *rows;    /* (1 + G4_DRAFT_MAX, pad16(vocab)): their logits, if rows_ready */
    int rows_ready;
    int ahead, row; /* guesses not yet confirmed; row of the present state */
    int length, rest, next_rest; /* guesses to make next time; tokens to wait first, and next time */
    double one, batch, gain;     /* seconds of a token alone, of the last batch, and what a batch gained lately */
} g4_reply;

static double g4_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Prompt lookup: where the last tokens stood before, what followed is a guess. A guess is evaluated together with the
 * token before it (the weights are read once) and holds if it is the token that g4_sample would have chosen anyway:
 * the random number of a position does not depend on how it was reached, and neither do logits, so the text is the
 * same with and without. */
static int g4_draft_find(const g4_token *t, int n, int most, g4_token *out)
{
    for (int end = n - 1; end >= G4_DRAFT_MATCH; end--) { /* t[end - G4_DRAFT_MATCH .. end) equals the last ones */
        if (memcmp(t + end - G4_DRAFT_MATCH, t + n - G4_DRAFT_MATCH, G4_DRAFT_MATCH * sizeof *t) != 0) continue;
        for (int i = 0; i < most; i++) out[i] = t[end + i]; /* out stands behind t, so a period goes on by itself */
        return most;
    }
    return 0;
}

/* Go on to a position that was evaluated with the guesses. */
static void g4_draft_use(g4_reply *r, int row)
{
    g4_session *s = r->s;
    const g4_config *c = &s->e->file.config;
    r->row = row;
    if (r->rows_ready)
        memcpy(s->logits, r->rows + (size_t)row * g4_round_up(c->n_vocab, 16), c->n_vocab * sizeof *s->logits);
    else
        memcpy(s->state, r->states + (size_t)row * c->hidden, c->hidden * sizeof *s->state);
    s->ready = r->rows_ready ? G4_READY_LOGITS : G4_READY_STATE;
}

/* The guesses of a batch are used up, or the next one was wrong: forget the rest and learn from it. */
static void g4_draft_end(g4_reply *r)
{
    g4_session *s = r->s;
    const int held = r->row; /* guesses that were right */
    s->n_guessed += (uint64_t)(r->row + r->ahead);
    s->n_held += (uint64_t)held;
    r->gain = 0.7 * r->gain + 0.3 * ((1 + held) * r->one - r->batch);
    if (r->gain < 0) {
        r->rest = r->next_rest;
        r->next_rest = g4_min_int(2 * r->next_rest, G4_DRAFT_REST_MAX);
        r->gain = 0;
    } else if (held > 0) {
        r->next_rest = G4_DRAFT_REST;
    }
    r->length = r->ahead > 0 ? g4_max_int(1, held) : g4_min_int(r->length + 2, G4_DRAFT_MAX);
    if (r->ahead > 0) {
        g4_lock(s->e);
        for (int i = 0; i < s->e->n_owners; i++) g4_cache_truncate(s->e, &s->caches[i], s->n);
        g4_unlock(s->e);
    }
    r->ahead = r->row = r->rows_ready = 0;
}

/* Append a chosen token; it is evaluated when something depends on it. */
static void g4_reply_append(g4_reply *r, g4_token token)
{
    g4_session *s = r->s;
    if (r->ahead > 0 && s->tokens[s->n] == token) {
        s->n++;
        s->n_evaluated++;
        r->ahead--;
        g4_draft_use(r, r->row + 1);
        if (r->ahead == 0) g4_draft_end(r);
        return;
    }
    if (r->ahead > 0) g4_draft_end(r);
    s->tokens[s->n + r->waiting++] = token;
}

/* Evaluate the tokens that wait, together with guesses at what follows. Of those before the last only keys and values
 * are needed. Afterwards the state behind the last one is there. */
static g4_status g4_reply_evaluate(g4_reply *r, int guess, g4_error *err)
{
    g4_session *s = r->s;
    const int end = s->n + r->waiting;
    int n = 0;
    if (r->waiting == 0) return G4_OK;
    if (guess && r->states && r->one > 0 && r->rest == 0)
        n = g4_draft_find(s->tokens, end, g4_min_int(g4_min_int(r->length, s->chunk - r->waiting), s->n_ctx - end),
                          s->tokens + end);
    if (r->rest > 0) r->rest--;
    const g4_progress_fn progress = s->progress; /* of prompts, which this is not */
    s->progress = NULL;
    g4_status status = G4_OK;
    if (n > 0 && g4_session_run(s, end + n, NULL, NULL, r->states, 1 + n, NULL)) n = 0;
    if (n == 0) status = g4_session_run(s, end, NULL, NULL, s->state, 1, err);
    s->progress = progress;
    if (status) return status;
    r->waiting = 0;
    s->n = end;
    s->n_evaluated -= (uint64_t)n;
    r->ahead = n;
    if (n > 0)
        g4_draft_use(r, 0);
    else
        s->ready = G4_READY_STATE;
    return G4_OK;
}

/* Logits of the last position, raw ones if `raw` will do, and at the same time those behind the guesses: the weights
 * are read once. */
static g4_status g4_reply_logits(g4_reply *r, int raw, g4_error *err)
{
    g4_session *s = r->s;
    const g4_config *c = &s->e->file.config;
    const size_t stride = g4_round_up(c->n_vocab, 16);
    if (r->ahead == 0 || s->ready == G4_READY_LOGITS) return raw ? g4_session_raw(s, err) : g4_session_refresh(s, err);
    g4_session_head(s, r->states + (size_t)r->row * c->hidden, 1 + r->ahead, r->rows + (size_t)r->row * stride, stride,
                    NULL);
    r->rows_ready = 1;
    g4_draft_use(r, r->row);
    return G4_OK;
}

/* The tokens that a mask allows, in id (G4_FEW), ascending; -1: more. */
static int g4_mask_few(const uint32_t *mask, int n_vocab, g4_token *id)
{
    int n = 0;
    for (int word = 0; 32 * word < n_vocab; word++)
        for (int i = 32 * word; mask[word] && i < g4_min_int(32 * word + 32, n_vocab); i++) {
            if (!(mask[word] >> (i % 32) & 1)) continue;
            if (n == G4_FEW) return -1;
            id[n++] = i;
        }
    return n;
}

/* On how many of the best tokens a choice depends; 0: on all. */
static int g4_choice_width(const g4_reply *r, const g4_sampling *p)
{
    if (r->opt->constraint || r->opt->want_logprobs || g4_penalises(p)) return 0;
    return p->temperature <= 0 ? 1 : p->top_k;
}

/* The next token, -1 when none is allowed. What the constraint decides alone is not evaluated yet, and of the head only
 * what it allows is computed, unless log-probabilities are wanted. */
static g4_status g4_reply_choose(g4_reply *r, const g4_sampling *sampling, g4_token *token, g4_error *err)
{
    g4_session *s = r->s;
    const g4_constraint *constraint = r->opt->constraint;
    const int n_vocab = (int)s->e->file.config.n_vocab, waited = r->waiting;
    g4_token few[G4_FEW];
    int n_few = -1;
    *token = -1;
    if (constraint) {
        memset(s->mask, 0xFF, ((size_t)n_vocab / 32 + 1) * sizeof *s->mask);
        if (constraint->mask(constraint->user, s->mask, n_vocab)) return G4_OK;
        if (!r->opt->want_logprobs) n_few = g4_mask_few(s->mask, n_vocab, few);
        if (n_few == 0) return G4_OK;
        if (n_few == 1 && !g4_penalises(sampling)) {
            *token = few[0];
            return r->waiting < g4_min_int(G4_WAIT_MAX, s->chunk) ? G4_OK : g4_reply_evaluate(r, 0, err);
        }
    }
    const double start = g4_seconds();
    g4_status status = g4_reply_evaluate(r, 1, err);
    if (status) return status;
    const int k = g4_choice_width(r, sampling);
    if (n_few > 0 && s->ready == G4_READY_STATE) {
        g4_session_head_some(s, few, n_few, s->work);
    } else {
        status = g4_reply_logits(r, k > 0, err);
        for (int i = 0; i < n_few; i++) s->work[few[i]] = s->logits[few[i]];
        if (!status && k > 0) n_few = g4_session_candidates(s, k, few);
        if (!status && k > 0 && n_few == 0) status = g4_session_refresh(s, err);
    }
    if (status) return status;
    const double seconds = g4_seconds() - start;
    if (r->ahead > 0)
        r->batch = waited > 0 ? seconds : r->batch + seconds;
    else if (waited == 1)
        r->one = r->one > 0 ? 0.8 * r->one + 0.2 * seconds : seconds;
    *token = g4_sample(s, sampling, n_few > 0 ? few : NULL, n_few, constraint != NULL, r->start);
    return G4_OK;
}

static int g4_is_stop(const g4_config *c, g4_token id)
{
    for (uint32_t i = 0; i < c->n_stop; i++)
        if ((uint32_t)id == c->stop[i]) return 1;
    return 0;
}

/* Has the reply run away with its newest token? */
static int g4_guard(g4_reply *r)
{
    const g4_token *t = r->s->tokens;
    const int n = r->s->n + r->waiting;
    for (int period = 1; period <= G4_GUARD_PERIOD && n - period > r->start; period++) {
        r->same[period] = t[n - 1] == t[n - 1 - period] ? r->same[period] + 1 : 0;
        if (r->same[period] + period >= g4_max_int(G4_GUARD_TOKENS, G4_GUARD_BLOCKS * period)) return 1;
    }
    return 0;
}

/* Where the first stop string begins in the pending text, or its length; *held gets how many bytes at the end may
 * begin one. */
static size_t g4_find_stop(const g4_reply *r, size_t *held)
{
    const char *text = r->pending.data;
    const size_t n = r->pending.len;
    size_t found = n;
    *held = 0;
    for (int i = 0; i < r->opt->n_stop; i++) {
        const char *stop = r->opt->stop[i];
        const size_t len = strlen(stop);
        for (size_t at = 0; len > 0 && at < n; at++) {
            const size_t rest = n - at < len ? n - at : len;
            if (memcmp(text + at, stop, rest) != 0) continue;
            if (rest == len && at < found) found = at;
            if (rest < len && rest > *held) *held = rest;
        }
    }
    return found;
}

/* Pass text on. Returns nonzero if the caller wants no more. */
static int g4_reply_output(g4_reply *r, const g4_output *about, size_t n)
{
    g4_output out = *about;
    out.text = n ? r->pending.data : "";
    out.text_len = n;
    return r->opt->output && r->opt->output(r->opt->user, &out);
}

static void g4_reply_consume(g4_reply *r, size_t n)
{
    if (n > 0) memmove(r->pending.data, r->pending.data + n, r->pending.len - n);
    r->pending.len -= n;
}

/* Take one chosen token into the timeline and its text to the caller. *stopped says whether that ends the reply. */
static g4_status g4_reply_take(g4_reply *r, g4_token token, int *stopped, g4_stop *stop, g4_error *err)
{
    g4_session *s = r->s;
    g4_output about = { .token = token };
    char piece[256], whole[260];
    const size_t n = g4_tokenizer_piece(&s->e->tokenizer, token, piece, &about.is_special);
    const size_t ready = g4_utf8_push(&r->utf8, piece, about.is_special ? 0 : n, whole);
    if (!about.is_special) g4_buf_add(&r->pending, whole, ready);
    if (r->pending.failed) return g4_fail(err, G4_ERR_MEMORY, "no memory for the reply");
    if (r->opt->want_logprobs) {
        const int n_vocab = (int)s->e->file.config.n_vocab;
        const float sum = g4_log_sum(s->logits, n_vocab);
        about.logprob = s->logits[token] - sum;
        about.n_top = g4_top(s->logits, n_vocab, g4_min_int(g4_min_int(r->opt->n_top, G4_MAX_TOP), n_vocab), r->top);
        for (int i = 0; i < about.n_top; i++) r->top[i].logprob -= sum;
        about.top = r->top;
    }
    g4_reply_append(r, token);
    size_t held = 0;
    const size_t found = r->pending.len ? g4_find_stop(r, &held) : 0;
    const int hit = found < r->pending.len;
    const size_t emit = hit ? found : r->pending.len - held;
    if (g4_reply_output(r, &about, emit)) {
        *stopped = 1;
        *stop = G4_STOP_CALLBACK;
    }
    g4_reply_consume(r, hit ? r->pending.len : emit);
    if (hit) {
        *stopped = 1;
        *stop = G4_STOP_STRING;
    } else if (!*stopped && !r->opt->no_guard && g4_guard(r)) {
        *stopped = 1;
        *stop = G4_STOP_REPEAT;
    }
    return G4_OK;
}

static g4_status g4_generate_checked(g4_reply *r, const g4_sampling *sampling, g4_result *result, g4_error *err)
{
    g4_session *s = r->s;
    const g4_generate_options *opt = r->opt;
    int stopped = 0;
    g4_status status = s->ready == G4_READY_NOTHING ? g4_session_raw(s, err) : G4_OK;
    while (!status && !stopped) {
        if (opt->max_tokens > 0 && result->n_tokens >= opt->max_tokens) {
            result->stop = G4_STOP_MAX_TOKENS;
            break;
        }
        if (s->n + r->waiting >= s->n_ctx) {
            result->stop = G4_STOP_CONTEXT;
            break;
        }
        g4_token token;
        status = g4_reply_choose(r, sampling, &token, err);
        if (status) break;
        if (token < 0) {
            result->stop = G4_STOP_CONSTRAINT;
            break;
        }
        if (opt->constraint && opt->constraint->accept) opt->constraint->accept(opt->constraint->user, token);
        if (!opt->ignore_stop_ids && g4_is_stop(&s->e->file.config, token)) {
            result->stop = G4_STOP_END;
            result->stop_token = token;
            break;
        }
        status = g4_reply_take(r, token, &stopped, &result->stop, err);
        if (!status) result->n_tokens++;
    }
    if (!status) status = g4_reply_evaluate(r, 0, err);
    result->n_tokens -= r->waiting; /* those that could not be evaluated are not in the timeline */
    /* what was held back, malformed bytes included */
    char rest[8];
    g4_buf_add(&r->pending, rest, g4_utf8_push(&r->utf8, NULL, 0, rest));
    if (!status && result->stop != G4_STOP_STRING && r->pending.len > 0) {
        const g4_output about = { .token = -1 };
        g4_reply_output(r, &about, r->pending.len);
    }
    return status;
}

g4_status g4_session_generate(g4_session *s, const g4_generate_options *opt, g4_result *out, g4_error *err)
{
    static const g4_generate_options defaults = { 0 };
    if (!opt) opt = &defaults;
    g4_result result = { .stop_token = -1 };
    if (s->n == 0) return g4_fail(err, G4_ERR_ARGUMENT, "nothing to continue: the timeline is empty");
    if (opt->max_tokens < 0 || opt->n_top < 0 || opt->n_top > G4_MAX_TOP || (opt->n_stop > 0 && !opt->stop))
        return g4_fail(err, G4_ERR_ARGUMENT, "max_tokens %d, n_top %d (at most %d) or n_stop %d", opt->max_tokens,
                       opt->n_top, G4_MAX_TOP, opt->n_stop);
    g4_sampling recommended;
    g4_sampling_recommended(s->e, &recommended);
    const g4_sampling *p = opt->sampling ? opt->sampling : &recommended;
    if (!(p->temperature >= 0) || !isfinite(p->temperature) || p->top_k < 0 || !(p->top_p >= 0 && p->top_p <= 1) ||
        !(p->min_p >= 0 && p->min_p <= 1) || !(p->repeat_penalty >= 0) || !isfinite(p->presence_penalty) ||
        !isfinite(p->frequency_penalty))
        return g4_fail(err, G4_ERR_ARGUMENT,
                       "sampling: temperature, top_k and penalties must not be negative, top_p and min_p lie in 0..1");
    g4_reply reply = {
        .s = s, .opt = opt, .start = s->n, .pending = { .a = s->e->a }, .length = 3, .next_rest = G4_DRAFT_REST
    };
    /* without the memory for it there are no drafts; pages that are not used are not resident */
    const size_t vocab = g4_round_up(s->e->file.config.n_vocab, 16);
    if (!opt->no_lookup)
        reply.rows = g4_alloc(s->e->a, 1 + G4_DRAFT_MAX, (vocab + s->e->file.config.hidden) * sizeof *reply.rows);
    if (reply.rows) reply.states = reply.rows + (1 + G4_DRAFT_MAX) * vocab;
    const double start = g4_seconds();
    const g4_status status = g4_generate_checked(&reply, p, &result, err);
    result.seconds = g4_seconds() - start;
    if (reply.ahead > 0) g4_draft_end(&reply);
    g4_free(s->e->a, reply.rows);
    g4_buf_free(&reply.pending);
    if (out) *out = result;
    return status;
}

/* ---- 17. Engine ------------------------------------------------------------------------------------
 *
 * Opening: file, weights, tokenizer, kernel table, threads, buffers. */

typedef struct { /* hands out the scratch buffers and counts */
    g4_engine *e;
    uint64_t bytes;
    int failed;
} g4_planner;

static void *g4_plan_buffer(g4_planner *p, size_t rows, size_t cols, size_t size)
{
    size_t n = 0, bytes = 0;
    if (g4_mul_overflows(rows, cols, &n) || g4_mul_overflows(n, size, &bytes)) {
        p->failed = 1;
        return NULL;
    }
    p->bytes += bytes;
    void *buffer = g4_alloc(p->e->a, n, size);
    if (!buffer) p->failed = 1;
    return buffer;
}

static g4_acts g4_plan_acts(g4_planner *p, size_t rows, int cols)
{
    g4_acts a = { 0 };
    a.steps = (cols + 63) / 64;
    a.x_stride = 64 * (size_t)a.steps;
    const size_t steps = (size_t)a.steps;
    a.x = g4_plan_buffer(p, rows, a.x_stride, sizeof(float));
    if (!p->e->all_f32) {
        a.q = g4_plan_buffer(p, rows, a.x_stride, 1);
        a.d = g4_plan_buffer(p, rows, 2 * steps, sizeof(float));
        a.sum = g4_plan_buffer(p, rows, 2 * steps, sizeof(int32_t));
    }
    return a;
}

static void g4_acts_free(const g4_engine *e, const g4_acts *a)
{
    g4_free(e->a, a->x);
    g4_free(e->a, a->q);
    g4_free(e->a, a->d);
    g4_free(e->a, a->sum);
}

static g4_status g4_scratch_open(g4_engine *e, g4_error *err)
{
    const g4_config *c = &e->file.config;
    g4_scratch *b = &e->scratch;
    size_t dim = 0, kv = 0, wide = c->hidden;
    for (uint32_t l = 0; l < c->n_layers; l++) {
        const g4_layer_config *lc = &e->file.layers[l];
        dim = lc->head_dim > dim ? lc->head_dim : dim;
        kv = (size_t)lc->n_kv_heads * lc->head_dim > kv ? (size_t)lc->n_kv_heads * lc->head_dim : kv;
        wide = lc->mlp_dim > wide ? lc->mlp_dim : wide;
    }
    if (c->n_heads * dim > wide) wide = c->n_heads * dim;
    if (c->ple_dim > wide) wide = c->ple_dim;
    /* a two-way picture block is evaluated in one piece */
    b->cap = (c->flags & G4_CONFIG_IMAGE_BIDIR) && c->v_layers ? G4_CHUNK_PICTURE : G4_CHUNK_MAX;
    const size_t cap = (size_t)b->cap, threads = (size_t)g4_pool_size(e->pool), used = c->n_experts_used;
    g4_planner p = { .e = e };
    b->normed = g4_plan_acts(&p, cap, (int)c->hidden);
    b->wide = g4_plan_acts(&p, cap, (int)wide);
    b->x = g4_plan_buffer(&p, cap, b->normed.x_stride, sizeof(float));
    b->out = g4_plan_buffer(&p, cap, b->normed.x_stride, sizeof(float));
    b->q_cols = (int)g4_round_up(c->n_heads * dim, 16);
    b->kv_cols = (int)g4_round_up(kv, 16);
    b->q = g4_plan_buffer(&p, cap, (size_t)b->q_cols, sizeof(float));
    b->k = g4_plan_buffer(&p, cap, (size_t)b->kv_cols, sizeof(float));
    b->v = g4_plan_buffer(&p, cap, (size_t)b->kv_cols, sizeof(float));
    b->ple_cols = (int)g4_round_up((size_t)c->n_layers * c->ple_dim, 16);
    b->ple = g4_plan_buffer(&p, cap, (size_t)b->ple_cols, sizeof(float));
    b->rope_cols = (int)dim / 2;
    for (int full = 0; full < 2; full++) {
        b->cos[full] = g4_plan_buffer(&p, cap, (size_t)b->rope_cols, sizeof(float));
        b->sin[full] = g4_plan_buffer(&p, cap, (size_t)b->rope_cols, sizeof(float));
    }
    b->soft = g4_plan_buffer(&p, cap, 1, sizeof *b->soft);
    b->see = g4_plan_buffer(&p, cap, 1, sizeof *b->see);
    if (c->n_experts) {
        b->route = g4_plan_buffer(&p, cap, g4_round_up(c->n_experts, 16), sizeof(float));
        b->expert = g4_plan_buffer(&p, cap, used, sizeof(int));
        b->slot = g4_plan_buffer(&p, cap, used, sizeof(int));
        b->gain = g4_plan_buffer(&p, cap, used, sizeof(float));
        b->expert_first = g4_plan_buffer(&p, 2 * (size_t)c->n_experts + 1, 1, sizeof(int));
        b->gathered = g4_plan_acts(&p, cap * used, (int)c->hidden);
        b->expert_hidden = g4_plan_acts(&p, cap * used, (int)c->expert_dim);
        b->expert_out = g4_plan_buffer(&p, cap * used, b->normed.x_stride, sizeof(float));
        b->dense = g4_plan_buffer(&p, cap, b->normed.x_stride, sizeof(float));
    }
    b->logits = g4_plan_buffer(&p, G4_LOGIT_ROWS, g4_round_up(c->n_vocab, 16), sizeof(float));
    b->worker_floats = 3 * G4_ATTEND_GROUP * g4_round_up(dim, 16);
    if (b->worker_floats < G4_GEGLU_TOKENS * 16 * G4_GEGLU_GROUPS)
        b->worker_floats = G4_GEGLU_TOKENS * 16 * G4_GEGLU_GROUPS;
    b->worker = g4_plan_buffer(&p, threads, b->worker_floats, sizeof(float));
    e->scratch_bytes = p.bytes;
    return p.failed ? g4_fail(err, G4_ERR_MEMORY, "no memory for work buffers of %.1f MB", (double)p.bytes / 1e6)
                    : G4_OK;
}

static void g4_scratch_close(g4_engine *e)
{
    g4_scratch *b = &e->scratch;
    g4_acts_free(e, &b->normed);
    g4_acts_free(e, &b->wide);
    g4_acts_free(e, &b->gathered);
    g4_acts_free(e, &b->expert_hidden);
    void *const plain[] = { b->x,
                            b->out,
                            b->q,
                            b->k,
                            b->v,
                            b->ple,
                            b->cos[0],
                            b->cos[1],
                            b->sin[0],
                            b->sin[1],
                            (void *)(uintptr_t)b->soft,
                            b->see,
                            b->route,
                            b->expert,
                            b->slot,
                            b->gain,
                            b->expert_first,
                            b->expert_out,
                            b->dense,
                            b->logits,
                            b->worker };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) g4_free(e->a, plain[i]);
    memset(b, 0, sizeof *b);
}

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

const g4_allocator *g4_engine_allocator(const g4_engine *e) { return e->a; }
const g4_tokenizer *g4_engine_tokenizer(const g4_engine *e) { return &e->tokenizer; }
const g4_config *g4_engine_config(const g4_engine *e) { return &e->file.config; }

static void g4_towers_close(g4_engine *e)
{
    for (int i = 0; i < e->n_softs; i++) g4_soft_drop(e, e->softs[i]);
    if (e->vision) g4_free(e->a, e->vision->layers);
    g4_free(e->a, e->vision);
    if (e->audio) g4_free(e->a, e->audio->layers);
    g4_free(e->a, e->audio);
}

void g4_engine_close(g4_engine *e)
{
    if (!e) return;
    g4_pool_close(e->pool);
    g4_scratch_close(e);
    g4_free(e->a, e->weights.layers);
    g4_towers_close(e);
    g4_file_close(&e->file, e->a);
    if (e->lock_ready) pthread_mutex_destroy(&e->lock);
    const g4_allocator a = e->allocator;
    g4_free(a.alloc_fn ? &a : NULL, e);
}

static g4_status g4_engine_choose(g4_engine *e, const g4_engine_options *opt, g4_error *err)
{
    const g4_kernels *k;
    for (int i = 0; (k = g4_usable_table(i)) != NULL; i++) {
        if (opt->isa && strcmp(opt->isa, k->isa) != 0) continue;
        e->kernels = k;
        return G4_OK;
    }
    g4_buf names = { .a = e->a };
    for (int i = 0; (k = g4_usable_table(i)) != NULL; i++) g4_buf_fmt(&names, " %s", k->isa);
    const g4_status status = g4_fail(err, G4_ERR_ARGUMENT, "isa %.32s is not one this CPU and build have:%.120s",
                                     opt->isa, names.data ? names.data : "");
    g4_buf_free(&names);
    return status;
}

/* How the file is read. What is not in memory yet comes in huge pages where the file system has them (ext4 from Linux
 * 6.16), and stays so for every process that maps it. Big tables are looked up a row at a time, anywhere: reading ahead
 * of a row would fetch its neighbours from disk for nothing. Advice: failure changes nothing. */
#define G4_BIG_TABLE (16u << 20)
static void g4_file_advise(const g4_file *f)
{
#if defined(MADV_RANDOM)
    const long page = sysconf(_SC_PAGESIZE);
    if (!f->mapped || page <= 0) return;
#if defined(MADV_HUGEPAGE)
    madvise((void *)(uintptr_t)f->data, f->size, MADV_HUGEPAGE);
#endif
    for (int i = 0; i < f->n_tensors; i++) {
        const g4_tensor_entry *t = &f->table[i];
        if (t->layout != G4_LAYOUT_ROWS || t->size < G4_BIG_TABLE) continue;
        const size_t from = g4_round_up((size_t)t->offset, (size_t)page),
                     to = (size_t)(t->offset + t->size) / (size_t)page * (size_t)page;
        if (from >= to) continue;
        void *p = (void *)(uintptr_t)(f->data + from);
#if defined(MADV_HUGEPAGE)
        madvise(p, to - from, MADV_NOHUGEPAGE);
#endif
        madvise(p, to - from, MADV_RANDOM);
    }
#else
    (void)f;
#endif
}

/* Whether every token reads this tensor, or with experts may read it: no lookup table, no encoder. */
static int g4_is_weight(const g4_tensor_entry *t)
{
    return t->layout != G4_LAYOUT_ROWS && strncmp(t->name, "v.", 2) != 0 && strncmp(t->name, "a.", 2) != 0;
}

static g4_status g4_file_lock(const g4_file *f, g4_error *err)
{
    for (int i = 0; i < f->n_tensors; i++) {
        const g4_tensor_entry *t = &f->table[i];
        if (g4_is_weight(t) && mlock(f->data + t->offset, (size_t)t->size) != 0)
            return g4_fail(err, G4_ERR_MEMORY, "cannot lock %s in memory: %s (ulimit -l says how much may be locked)",
                           t->name, strerror(errno));
    }
    return G4_OK; /* unmapping unlocks */
}

#define G4_HUGE_PAGE ((size_t)2 << 20)

/* Replace [from, to) of the mapping by a private copy in huge pages, as far as whole ones fit: hardware does not
 * prefetch across the border of a page, and 2 MB have 512 times fewer borders. Addresses stay as they are. */
static g4_status g4_file_copy(const g4_file *f, int fd, size_t from, size_t to, g4_error *err)
{
#if defined(MADV_HUGEPAGE)
    const uintptr_t base = (uintptr_t)f->data;
    const uintptr_t first = (base + from + G4_HUGE_PAGE - 1) / G4_HUGE_PAGE * G4_HUGE_PAGE,
                    last = (base + to) / G4_HUGE_PAGE * G4_HUGE_PAGE;
    if (first >= last) return G4_OK;
    const size_t size = last - first;
    uint8_t *p = mmap((void *)first, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (p == MAP_FAILED) return g4_fail(err, G4_ERR_MEMORY, "no memory for %zu bytes of weights", size);
    madvise(p, size, MADV_HUGEPAGE); /* advice: failure changes nothing */
    for (size_t done = 0; done < size;) {
        const ssize_t n = pread(fd, p + done, size - done, (off_t)(first - base + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return g4_fail(err, G4_ERR_IO, "cannot read the weights: %s", n < 0 ? strerror(errno) : "end");
        done += (size_t)n;
    }
    mprotect(p, size, PROT_READ);
#else
    (void)f, (void)fd, (void)from, (void)to, (void)err;
#endif
    return G4_OK;
}

/* All weights, neighbours in one piece. */
static g4_status g4_file_use_huge_pages(const g4_file *f, const char *path, g4_error *err)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return g4_fail(err, G4_ERR_IO, "%.100s: %s", path, strerror(errno));
    g4_status status = G4_OK;
    size_t from = 0, to = 0;
    for (int i = 0; !status && i <= f->n_tensors; i++) {
        const g4_tensor_entry *t = i < f->n_tensors ? &f->table[i] : NULL;
        if (t && !g4_is_weight(t)) continue;
        if (t && t->offset >= to && t->offset - to < G4_ALIGN) {
            to = (size_t)(t->offset + t->size);
            continue;
        }
        if (from < to) status = g4_file_copy(f, fd, from, to, err);
        if (t) from = (size_t)t->offset, to = (size_t)(t->offset + t->size);
    }
    close(fd);
    return status;
}

#define G4_PREFAULT_STEP ((size_t)16 << 20)
#define G4_RESIDENCE_STEP ((size_t)2 << 20) /* one page of each is looked at */

void g4_engine_residence(const g4_engine *e, uint64_t *resident, uint64_t *total)
{
    *resident = *total = 0;
    for (int i = 0; i < e->file.n_tensors; i++) {
        const g4_tensor_entry *t = &e->file.table[i];
        if (!g4_is_weight(t)) continue;
        *total += t->size;
#if defined(__linux__)
        const size_t page = (size_t)sysconf(_SC_PAGESIZE);
        for (size_t at = 0; e->file.mapped && at < t->size; at += G4_RESIDENCE_STEP) {
            unsigned char in = 1;
            const size_t n = t->size - at < G4_RESIDENCE_STEP ? (size_t)t->size - at : G4_RESIDENCE_STEP;
            mincore((void *)(uintptr_t)(e->file.data + (t->offset + at) / page * page), 1, &in);
            if (in & 1) *resident += n;
        }
        if (!e->file.mapped) *resident += t->size;
#else
        *resident += t->size;
#endif
    }
}

g4_status g4_engine_prefault(const g4_engine *e, g4_progress_fn progress, void *user, g4_error *err)
{
    uint64_t resident, total, done = 0;
    g4_engine_residence(e, &resident, &total);
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < e->file.n_tensors; i++) {
        const g4_tensor_entry *t = &e->file.table[i];
        for (size_t at = 0; g4_is_weight(t) && at < t->size; at += G4_PREFAULT_STEP) {
            const size_t n = t->size - at < G4_PREFAULT_STEP ? (size_t)t->size - at : G4_PREFAULT_STEP;
            const volatile uint8_t *p = e->file.data + t->offset + at;
            for (size_t k = 0; k < n; k += page) (void)p[k];
            done += n;
            if (progress && progress(user, done, total)) return g4_fail(err, G4_ERR_CANCELED, "canceled");
        }
    }
    return G4_OK;
}

static g4_status g4_engine_build(g4_engine *e, const g4_engine_options *opt, g4_error *err)
{
    if (opt->n_threads < 0 || opt->n_threads > G4_MAX_THREADS)
        return g4_fail(err, G4_ERR_ARGUMENT, "%d threads: 1 to %d, or 0 for one per core", opt->n_threads,
                       G4_MAX_THREADS);
    g4_status status = g4_file_open(&e->file, opt, e->a, err);
    if (!status) status = g4_engine_choose(e, opt, err); /* asks the CPU, which a virtual machine answers slowly */
    if (status) return status;
    g4_file_advise(&e->file); /* before the first look at a weight */
    const g4_config *c = &e->file.config;
    status = g4_tokenizer_bind(&e->tokenizer, e->file.tokenizer, e->file.tokenizer_size, c->n_vocab, err);
    if (status) return status;
    e->weights.layers = g4_alloc(e->a, (size_t)c->n_layers + 1, sizeof *e->weights.layers);
    if (!e->weights.layers) return g4_fail(err, G4_ERR_MEMORY, "no memory for %u layers", c->n_layers);
    if (c->n_layers > 0) {
        e->n_owners = g4_bind_owners(e->weights.layers, &e->file);
        for (int l = 0; l < (int)c->n_layers; l++)
            if (e->weights.layers[l].has_kv) e->last_owner = l;
        g4_binder b = { .file = &e->file, .err = err };
        g4_bind_text(&b, &e->weights);
        g4_vision_bind(e, &b);
        g4_audio_bind(e, &b);
        g4_bind_end(&b);
        if (b.status) return b.status;
        if (opt->huge_pages && opt->model_path &&
            (status = g4_file_use_huge_pages(&e->file, opt->model_path, err)) != G4_OK)
            return status;
        if (opt->lock_memory && (status = g4_file_lock(&e->file, err)) != G4_OK) return status;
        e->all_f32 = 1;
        for (int i = 0; i < e->file.n_tensors; i++)
            if (e->file.table[i].layout == G4_LAYOUT_GROUPS16 &&
                g4_type_get(e->file.table[i].type)->reads == G4_READS_INT8)
                e->all_f32 = 0;
    }
    e->pool = g4_pool_open(e->a, opt->n_threads ? opt->n_threads : g4_default_threads());
    if (!e->pool) return g4_fail(err, G4_ERR_MEMORY, "cannot start %d threads", opt->n_threads);
    return c->n_layers > 0 ? g4_scratch_open(e, err) : G4_OK;
}

g4_status g4_engine_open(g4_engine **out, const g4_engine_options *opt, g4_error *err)
{
    *out = NULL;
    static const g4_engine_options none = { 0 };
    if (!opt) opt = &none;
    g4_engine *e = g4_alloc(opt->allocator, 1, sizeof *e);
    if (!e) return g4_fail(err, G4_ERR_MEMORY, "no memory for an engine");
    if (opt->allocator) e->allocator = *opt->allocator;
    e->a = e->allocator.alloc_fn ? &e->allocator : NULL;
    e->log = opt->log;
    e->log_user = opt->user;
    e->lock_ready = pthread_mutex_init(&e->lock, NULL) == 0;
    const g4_status status = g4_engine_build(e, opt, err);
    if (status)
        g4_engine_close(e);
    else
        *out = e;
    return status;
}

static uint64_t g4_matrix_products(const g4_matrix *m) { return (uint64_t)m->rows * (uint64_t)m->cols; }

/* Multiply-adds with the weights of one layer for one token. */
static uint64_t g4_layer_products(const g4_config *c, const g4_layer *w)
{
    const g4_matrix *const all[] = { &w->q, &w->k, &w->v, &w->o, &w->gate_up, &w->down, &w->ple_gate, &w->ple_proj,
                                     &w->router };
    uint64_t n = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i]->data) n += g4_matrix_products(all[i]);
    if (w->cfg.flags & G4_LAYER_MOE)
        n += c->n_experts_used * (g4_matrix_products(&w->experts_gate_up) + g4_matrix_products(&w->experts_down));
    return n;
}

/* Behind the last layer with keys and values of its own only the last token of a prompt goes on (see
 * g4_layer_run), and of that layer the others need but those keys and values. */
static void g4_count_products(const g4_engine *e, g4_engine_info *out)
{
    const g4_config *c = &e->file.config;
    for (int l = 0; l < (int)c->n_layers; l++) {
        const g4_layer *w = &e->weights.layers[l];
        const uint64_t n = g4_layer_products(c, w);
        out->decode_products += n;
        if (l < e->last_owner) out->prompt_products += n;
        if (l == e->last_owner) out->prompt_products += g4_matrix_products(&w->k) + g4_matrix_products(&w->v);
    }
    if (!c->n_layers) return;
    out->decode_products += g4_matrix_products(&e->weights.head);
    if (c->ple_dim) {
        out->decode_products += g4_matrix_products(&e->weights.ple_in);
        out->prompt_products += (uint64_t)e->last_owner * c->ple_dim * c->hidden;
    }
}

void g4_engine_get_info(const g4_engine *e, g4_engine_info *out)
{
    const g4_config *c = &e->file.config;
    *out = (g4_engine_info) { .name = c->name,
                              .isa = e->kernels->isa,
                              .n_layers = (int)c->n_layers,
                              .hidden = (int)c->hidden,
                              .n_vocab = (int)c->n_vocab,
                              .n_threads = g4_pool_size(e->pool),
                              .max_ctx = (int)c->max_ctx,
                              .is_chat = (c->flags & G4_CONFIG_CHAT) != 0,
                              .has_image = c->v_layers > 0,
                              .has_audio = c->a_layers > 0,
                              .file_bytes = e->file.size,
                              .bos = (g4_token)c->bos,
                              .eos = (g4_token)c->eos,
                              .pad = (g4_token)c->pad };
    for (int i = 0; i < e->file.n_tensors; i++) {
        const g4_tensor_entry *t = &e->file.table[i];
        out->n_params += t->dims[0] * t->dims[1] * t->dims[2];
        if (t->layout == G4_LAYOUT_ROWS)
            out->lookup_bytes += t->size;
        else if (t->n_dims == 3 && c->n_experts)
            out->decode_bytes += t->size / c->n_experts * c->n_experts_used;
        else if (g4_is_weight(t))
            out->decode_bytes += t->size;
    }
    g4_count_products(e, out);
}

int g4_engine_get_tensor(const g4_engine *e, int i, g4_tensor_info *out)
{
    static const char *const layouts[] = { "plain", "rows", "groups16" };
    if (i < 0 || i >= e->file.n_tensors) return 0;
    const g4_tensor_entry *t = &e->file.table[i];
    *out = (g4_tensor_info) {
        t->name, g4_type_name(t->type), layouts[t->layout], (int)t->n_dims, { t->dims[0], t->dims[1], t->dims[2] },
        t->size
    };
    return 1;
}

g4_status g4_tokenize(const g4_engine *e, const char *text, size_t len, int specials, g4_token *out, size_t cap,
                      size_t *n, g4_error *err)
{
    g4_tokens ids = { NULL, 0, 0 };
    *n = 0;
    const g4_status status = g4_tokenizer_encode(&e->tokenizer, e->a, text, len, specials, &ids, err);
    if (!status) {
        *n = ids.n;
        const size_t fits = ids.n < cap ? ids.n : cap;
        if (fits > 0) memcpy(out, ids.ids, fits * sizeof *out);
    }
    g4_free(e->a, ids.ids);
    return status;
}

size_t g4_token_bytes(const g4_engine *e, g4_token id, int skip_special, char *out)
{
    int special = 0;
    if (id < 0 || (uint32_t)id >= e->file.config.n_vocab) return 0;
    const size_t n = g4_tokenizer_piece(&e->tokenizer, id, out, &special);
    return special && skip_special ? 0 : n;
}
