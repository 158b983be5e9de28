/* file.c - the model file: mapped or taken as bytes, checked whole, then asked for its tensors by name.
 *
 * In: a path or bytes. Out: a g4_file whose header, configuration, tokenizer and table have been checked against the
 * file's size and against each other, so that inner loops check nothing. The format is described field by field in
 * parts.h. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Checks ------------------------------------------------------------------------------------- */

_Static_assert(sizeof(g4_file_header) == 128, "the header is 128 bytes on disk");
_Static_assert(sizeof(g4_tensor_entry) == 128, "a table entry is 128 bytes on disk");
_Static_assert(sizeof(g4_layer_config) == 32, "a layer record is 32 bytes on disk");

#define G4_CHECKSUM_START 48 /* the checksum covers everything after itself up to the tensor data */
#define G4_MAX_LAYERS 512 /* sanity bounds, far above any family member: they keep products of sizes within 64 bits */
#define G4_MAX_DIM (1u << 24)
#define G4_EXPERT_ALIGN 4096 /* bytes: every expert begins on a page */

uint64_t g4_checksum_step(uint64_t h, uint64_t word)
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
    if (t->n_dims == 2) return matrix;
    return t->dims[0] * ((matrix + G4_EXPERT_ALIGN - 1) / G4_EXPERT_ALIGN * G4_EXPERT_ALIGN);
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
    if (t->n_dims < (t->layout == G4_LAYOUT_PLAIN ? 1u : 2u) || t->n_dims > 3)
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

/* The fixed part and the layers, as far as this version knows their fields; the rest stays 0. */
static g4_status g4_file_read_config(g4_file *f, const g4_allocator *a, const g4_file_header *h, g4_error *err)
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
    c->name[sizeof c->name - 1] = c->source[sizeof c->source - 1] = c->source_sha256[sizeof c->source_sha256 - 1] = 0;
    if (c->n_layers > G4_MAX_LAYERS || (uint64_t)c->n_layers * sizes[1] != h->config_size - sizes[0])
        return g4_fail(err, G4_ERR_FORMAT, "configuration of %llu bytes does not hold %u layers",
                       (unsigned long long)h->config_size, c->n_layers);
    f->layers = g4_alloc(a, (size_t)c->n_layers + 1, sizeof *f->layers);
    if (!f->layers) return g4_fail(err, G4_ERR_MEMORY, "no memory for the configuration");
    const size_t layer = sizes[1] < sizeof *f->layers ? sizes[1] : sizeof *f->layers;
    for (uint32_t l = 0; l < c->n_layers; l++) memcpy(&f->layers[l], p + sizes[0] + (size_t)l * sizes[1], layer);
    return G4_OK;
}

/* Every number by itself lies where the sizes computed from it cannot overflow. */
static g4_status g4_file_check_ranges(const g4_config *c, g4_error *err)
{
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
    return G4_OK;
}

/* Every layer goes with its neighbours, with the layer whose keys it reads and with the others of its kind, sliding or
 * full, which share the angles of RoPE. */
static g4_status g4_file_check_layers(const g4_file *f, g4_error *err)
{
    const g4_config *c = &f->config;
    uint32_t head_dim[2] = { 0 }; /* of each kind; 0: none seen yet */
    for (uint32_t l = 0; l < c->n_layers; l++) {
        const g4_layer_config *lc = &f->layers[l];
        const g4_layer_config *source = lc->kv_source <= l ? &f->layers[lc->kv_source] : NULL;
        if (lc->n_kv_heads < 1 || lc->n_kv_heads > c->n_heads || c->n_heads % lc->n_kv_heads != 0 || lc->head_dim < 2 ||
            lc->head_dim > G4_MAX_HEAD_DIM || lc->head_dim % 2 != 0 || lc->mlp_dim < 1 || lc->mlp_dim > 1u << 18 ||
            c->n_heads / lc->n_kv_heads > G4_UNIT_QUERIES)
            return g4_fail(err, G4_ERR_FORMAT, "configuration of layer %u: %u kv heads of %u, mlp of %u", l,
                           lc->n_kv_heads, lc->head_dim, lc->mlp_dim);
        if (!source || source->kv_source != lc->kv_source || source->head_dim != lc->head_dim ||
            source->n_kv_heads != lc->n_kv_heads || (source->flags & G4_LAYER_FULL) != (lc->flags & G4_LAYER_FULL))
            return g4_fail(err, G4_ERR_FORMAT, "configuration of layer %u: cannot read the keys of layer %u", l,
                           lc->kv_source);
        if ((lc->flags & G4_LAYER_MOE) && c->n_experts == 0)
            return g4_fail(err, G4_ERR_FORMAT, "layer %u has no experts to choose from", l);
        uint32_t *others = &head_dim[(lc->flags & G4_LAYER_FULL) != 0];
        if (*others && *others != lc->head_dim)
            return g4_fail(err, G4_ERR_FORMAT, "layer %u: head dimension %u where others of its kind have %u", l,
                           lc->head_dim, *others);
        *others = lc->head_dim;
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
    g4_status status = g4_file_read_config(f, a, &h, err);
    if (!status) status = g4_file_check_ranges(&f->config, err);
    if (!status) status = g4_file_check_layers(f, err);
    return status;
}

/* ---- Opening ------------------------------------------------------------------------------------ */

void g4_file_close(g4_file *f, const g4_allocator *a)
{
    g4_free(a, f->layers);
    g4_free(a, f->bound);
    if (f->mapping) munmap(f->mapping, f->size);
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
            f->data = f->mapping = p;
            f->size = (size_t)st.st_size;
            f->device = (uint64_t)st.st_dev;
            f->inode = (uint64_t)st.st_ino;
        }
    }
    close(fd);
    return status;
}

g4_status g4_file_open(g4_file *f, const g4_engine_options *opt, const g4_allocator *a, g4_error *err)
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

/* ---- Tensors by name -----------------------------------------------------------------------------
 *
 * Names are looked up once, when a model is opened. Every tensor must be bound by exactly one field and every field
 * must find its tensor, of the expected shape. */

static const g4_tensor_entry *g4_bind_find(g4_binder *b, const char *name)
{
    g4_file *f = b->file;
    for (int i = 0; i < f->n_tensors; i++) {
        const int index = (b->cursor + i) % f->n_tensors;
        if (strcmp(f->table[index].name, name) != 0) continue;
        b->cursor = index + 1;
        f->bound[index] = 1;
        return &f->table[index];
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
const float *g4_bind_vector(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t n)
{
    const g4_tensor_entry *t = g4_bind(b, prefix, layer, field, G4_LAYOUT_PLAIN, 1, n, 1, 1);
    return t ? (const float *)(const void *)(b->file->data + t->offset) : NULL;
}

g4_matrix g4_bind_matrix(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t rows, uint64_t cols)
{
    const g4_tensor_entry *t = g4_bind(b, prefix, layer, field, G4_LAYOUT_GROUPS16, 2, rows, cols, 1);
    return t ? g4_matrix_at(b->file->data + t->offset, t, rows, cols) : (g4_matrix) { 0 };
}

g4_stack g4_bind_stack(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t n, uint64_t rows,
                       uint64_t cols)
{
    const g4_tensor_entry *t = g4_bind(b, prefix, layer, field, G4_LAYOUT_GROUPS16, 3, n, rows, cols);
    if (!t) return (g4_stack) { 0 };
    return (g4_stack) { g4_matrix_at(b->file->data + t->offset, t, rows, cols), (size_t)(t->size / n) };
}

g4_table g4_bind_table(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t rows, uint64_t cols)
{
    const g4_tensor_entry *t = g4_bind(b, prefix, layer, field, G4_LAYOUT_ROWS, 2, rows, cols, 1);
    if (!t) return (g4_table) { 0 };
    return (g4_table) { b->file->data + t->offset, (g4_type)t->type, (g4_scale_type)t->scale_type, (int)rows, (int)cols,
                        (size_t)(t->size / rows) };
}

/* A float32 array of two dimensions. */
const float *g4_bind_array(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t rows, uint64_t cols)
{
    const g4_tensor_entry *t = g4_bind(b, prefix, layer, field, G4_LAYOUT_PLAIN, 2, rows, cols, 1);
    return t ? (const float *)(const void *)(b->file->data + t->offset) : NULL;
}

/* Everything in the file must have been asked for: a tensor nobody reads means that writer and reader disagree. */
void g4_bind_end(g4_binder *b)
{
    for (int i = 0; i < b->file->n_tensors && !b->status; i++)
        if (!b->file->bound[i])
            b->status = g4_fail(b->err, G4_ERR_FORMAT, "tensor %s is not one this model has", b->file->table[i].name);
}
