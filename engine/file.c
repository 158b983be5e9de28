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
#include <float.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Checks ------------------------------------------------------------------------------------- */

_Static_assert(sizeof(g4_file_header) == 128, "the header is 128 bytes on disk");
_Static_assert(sizeof(g4_tensor_entry) == 128, "a table entry is 128 bytes on disk");
_Static_assert(sizeof(g4_layer_config) == 32, "a layer record is 32 bytes on disk");

#define G4_CHECKSUM_START 48 /* the checksum covers everything after itself up to the tensor data */
/* Sanity bounds, far above any family member: they keep products of sizes within 64 bits, and what a small file can ask
 * for within what a large model takes. */
#define G4_MAX_LAYERS 512
#define G4_MAX_TENSORS (1u << 16)
#define G4_MAX_DIM (1u << 24)
#define G4_MAX_TABLES (UINT64_C(1) << 29) /* bytes of everything in front of the tensors; the family has 17 MB */
#define G4_MAX_EXPERTS_USED 64
#define G4_MAX_TOKEN_SIDE 128 /* pixels of the square that becomes a soft token */
#define G4_EXPERT_ALIGN 4096  /* bytes: every expert begins on a page */

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
    const uint64_t rows = t->dims[t->n_dims - 2], cols = t->dims[t->n_dims - 1];
    if (t->layout == G4_LAYOUT_ROWS) return rows * g4_row_bytes(t->type, cols);
    const uint64_t matrix = (rows + 15) / 16 * g4_group_bytes(t->type, cols);
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
    if (!(type->scale_types >> t->scale_type & 1) || (t->layout == G4_LAYOUT_PLAIN && !type->is_float32))
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

/* A number of the configuration and the range it must lie in. */
typedef struct {
    const char *name;
    uint32_t value, low, high;
} g4_range;

static g4_status g4_check_ranges(const g4_range *ranges, size_t n, g4_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (ranges[i].value < ranges[i].low || ranges[i].value > ranges[i].high)
            return g4_fail(err, G4_ERR_FORMAT, "configuration: %s is %u, expected %u to %u", ranges[i].name,
                           ranges[i].value, ranges[i].low, ranges[i].high);
    return G4_OK;
}
#define G4_CHECK_RANGES(ranges, err) g4_check_ranges(ranges, sizeof(ranges) / sizeof *(ranges), err)

/* Ids are those of tokens, also the ones that only other readers use. */
static g4_status g4_file_check_ids(const g4_config *c, g4_error *err)
{
    const uint32_t last = c->n_vocab - 1;
    const g4_range ids[] = {
        { "bos", c->bos, 0, last },
        { "eos", c->eos, 0, last },
        { "pad", c->pad, 0, last },
        { "unk", c->unk, 0, last },
        { "image_begin", c->image_begin, 0, last },
        { "image_token", c->image_token, 0, last },
        { "image_end", c->image_end, 0, last },
        { "audio_begin", c->audio_begin, 0, last },
        { "audio_token", c->audio_token, 0, last },
        { "audio_end", c->audio_end, 0, last },
        { "video_token", c->video_token, 0, last },
    };
    g4_status status = G4_CHECK_RANGES(ids, err);
    for (uint32_t i = 0; i < c->n_stop && !status; i++)
        status = g4_check_ranges(&(g4_range) { "a stop id", c->stop[i], 0, last }, 1, err);
    return status;
}

/* Every number by itself lies where the sizes computed from it cannot overflow, and flags are known. */
static g4_status g4_file_check_ranges(const g4_config *c, g4_error *err)
{
    const uint32_t all_flags = G4_CONFIG_TIED | G4_CONFIG_V_NORM | G4_CONFIG_IMAGE_BIDIR | G4_CONFIG_CHAT;
    const g4_range ranges[] = {
        { "n_vocab", c->n_vocab, 1, 1u << 22 },
        { "flags", c->flags, 0, all_flags },
        { "n_stop", c->n_stop, 0, sizeof c->stop / sizeof *c->stop },
        { "chat_template", c->chat_template, 0, G4_TEMPLATE_31B_2026_04 },
        { "top_k", c->top_k, 0, 1u << 22 },
        { "hidden", c->hidden, c->n_layers > 0, 1u << 16 },
        { "n_heads", c->n_heads, c->n_layers > 0, 1024 },
        { "window", c->window, c->n_layers > 0, 1u << 24 },
        { "max_ctx", c->max_ctx, c->n_layers > 0, 1u << 24 },
        { "ple_dim", c->ple_dim, 0, G4_MAX_PLE_DIM },
        { "n_experts", c->n_experts, 0, 1024 },
        { "n_experts_used", c->n_experts_used, c->n_experts > 0,
          c->n_experts < G4_MAX_EXPERTS_USED ? c->n_experts : G4_MAX_EXPERTS_USED },
        { "expert_dim", c->expert_dim, c->n_experts > 0, 1u << 17 },
        { "v_layers", c->v_layers, 0, c->n_layers > 0 ? G4_MAX_LAYERS : 0 },
        { "v_hidden", c->v_hidden, c->v_layers > 0, 1u << 14 },
        { "v_heads", c->v_heads, c->v_layers > 0, 256 },
        { "v_head_dim / 4", c->v_head_dim / 4, c->v_layers > 0, G4_MAX_HEAD_DIM / 4 },
        { "v_head_dim % 4", c->v_head_dim % 4, 0, 0 },
        { "v_mlp", c->v_mlp, c->v_layers > 0, 1u << 16 },
        { "v_patch", c->v_patch, c->v_layers > 0, 64 },
        { "v_pool", c->v_pool, c->v_layers > 0, 4 },
        { "v_patch * v_pool", c->v_layers > 0 ? c->v_patch * c->v_pool : 0, 0, G4_MAX_TOKEN_SIDE },
        { "v_n_pos", c->v_n_pos, c->v_layers > 0, 1u << 16 },
        { "v_flags", c->v_flags, 0, G4_VISION_STANDARDIZE | G4_VISION_CLIPPED },
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
    return G4_CHECK_RANGES(ranges, err);
}

/* Scales are finite numbers, and above 0 where something is divided by them or by their root. */
static g4_status g4_file_check_scales(const g4_config *c, g4_error *err)
{
    const struct {
        const char *name;
        float value;
        int above_0;
        float high;
    } scales[] = {
        { "eps", c->eps, c->n_layers > 0, 1 },
        { "attn_scale", c->attn_scale, c->n_layers > 0, 1e6f },
        { "softcap", c->softcap, 0, 1e6f },
        { "embed_scale", c->embed_scale, c->n_layers > 0, 1e6f },
        { "temperature", c->temperature, 0, 1e6f },
        { "top_p", c->top_p, 0, 1 },
        { "v_eps", c->v_eps, c->v_layers > 0, 1 },
        { "v_rope_theta", c->v_rope_theta, c->v_layers > 0, 1e12f },
        { "a_eps", c->a_eps, c->a_layers > 0, 1 },
        { "a_residual_weight", c->a_residual_weight, 0, 1e6f },
        { "a_logit_cap", c->a_logit_cap, c->a_layers > 0, 1e30f },
        { "a_clip", c->a_clip, c->a_layers > 0, FLT_MAX },
    };
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
        if (!(scales[i].value >= 0 && scales[i].value <= scales[i].high) || (scales[i].above_0 && scales[i].value == 0))
            return g4_fail(err, G4_ERR_FORMAT, "configuration: %s is %g, expected a number %s 0 and at most %g",
                           scales[i].name, (double)scales[i].value, scales[i].above_0 ? "above" : "from",
                           (double)scales[i].high);
    const uint32_t n = c->v_default_tokens;
    if (c->v_layers > 0 && n != 70 && n != 140 && n != 280 && n != 560 && n != 1120)
        return g4_fail(err, G4_ERR_FORMAT, "configuration: v_default_tokens is %u, expected 70, 140, 280, 560 or 1120",
                       n);
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
        if (lc->flags & ~(G4_LAYER_FULL | G4_LAYER_K_EQ_V | G4_LAYER_MOE | G4_LAYER_SCALAR))
            return g4_fail(err, G4_ERR_FORMAT, "configuration of layer %u: unknown flags %x", l, lc->flags);
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

/* The header alone. */
static g4_status g4_file_check_header(const g4_file *f, g4_error *err)
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
    if (h.data_offset < sizeof h || h.data_offset > f->size || h.data_offset > G4_MAX_TABLES ||
        h.n_tensors > G4_MAX_TENSORS || !g4_inside(h.config_offset, h.config_size, h.data_offset) ||
        !g4_inside(h.tokenizer_offset, h.tokenizer_size, h.data_offset) ||
        !g4_inside(h.table_offset, h.n_tensors * sizeof(g4_tensor_entry), h.data_offset) || h.config_offset % 4 != 0 ||
        h.tokenizer_offset % G4_ALIGN != 0 || h.table_offset % 8 != 0)
        return g4_fail(err, G4_ERR_FORMAT, "the header's offsets lie outside the file");
    return G4_OK;
}

size_t g4_file_data_offset(const g4_file *f)
{
    g4_file_header h;
    memcpy(&h, f->data, sizeof h);
    return (size_t)h.data_offset;
}

/* What stands between a sound header and the tensors. */
static g4_status g4_file_check_tables(g4_file *f, const g4_allocator *a, g4_error *err)
{
    g4_file_header h;
    memcpy(&h, f->data, sizeof h);
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
    if (!status) status = g4_file_check_ids(&f->config, err);
    if (!status) status = g4_file_check_scales(&f->config, err);
    if (!status) status = g4_file_check_layers(f, err);
    return status;
}

/* ---- Opening ------------------------------------------------------------------------------------ */

#define G4_FILE_PIECE ((size_t)4 << 20) /* bytes that are read before the halt is asked again */

void g4_file_leave(g4_file *f)
{
    if (f->is_open) close(f->fd);
    f->is_open = 0;
}

void g4_file_close(g4_file *f, const g4_allocator *a)
{
    g4_file_leave(f);
    g4_free(a, f->layers);
    g4_free(a, f->bound);
    if (f->mapping) munmap(f->mapping, f->size);
    memset(f, 0, sizeof *f);
}

g4_status g4_file_read(const g4_file *f, void *to, size_t from, size_t size, g4_halt *halt, g4_error *err)
{
    for (size_t done = 0; done < size;) {
        const g4_status status = g4_halt_check(halt, err);
        if (status) return status;
        const ssize_t n =
            pread(f->fd, (uint8_t *)to + done, g4_min_size(size - done, G4_FILE_PIECE), (off_t)(from + done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return g4_fail(err, G4_ERR_IO, "cannot read: %s",
                           n < 0 ? strerror(errno) : "the file was truncated while it was read");
        done += (size_t)n;
    }
    return G4_OK;
}

/* Only a regular file has a size and can be mapped; to open a pipe without a writer would wait for one. */
static g4_status g4_file_enter(g4_file *f, const char *path, g4_error *err)
{
    struct stat st;
    f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (f->fd < 0) return g4_fail(err, G4_ERR_IO, "cannot open: %s", strerror(errno));
    f->is_open = 1;
    if (fstat(f->fd, &st) != 0) return g4_fail(err, G4_ERR_IO, "cannot stat: %s", strerror(errno));
    if (S_ISDIR(st.st_mode))
        return g4_fail(err, G4_ERR_FORMAT, "is a directory: convert the checkpoint in it with export.py");
    if (!S_ISREG(st.st_mode)) return g4_fail(err, G4_ERR_FORMAT, "not a regular file");
    if ((uint64_t)st.st_size > SIZE_MAX) return g4_fail(err, G4_ERR_IO, "too large for this system");
    f->size = (size_t)st.st_size;
    return G4_OK;
}

/* Map the file, or reserve memory for it. */
static g4_status g4_file_map(g4_file *f, g4_error *err)
{
    if (f->size == 0) return G4_OK;
    void *p = f->is_copy ? mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                         : mmap(NULL, f->size, PROT_READ, MAP_SHARED, f->fd, 0);
    if (p == MAP_FAILED)
        return g4_fail(err, f->is_copy ? G4_ERR_MEMORY : G4_ERR_IO, "cannot %s %zu bytes: %s",
                       f->is_copy ? "reserve memory for its" : "map", f->size, strerror(errno));
    f->data = f->mapping = p;
    return G4_OK;
}

/* Where the tensors of a file begin that is to be read; memory is taken for a model file only. */
static g4_status g4_file_read_header(g4_file *f, size_t *data_offset, g4_halt *halt, g4_error *err)
{
    g4_file_header h;
    f->data = (const uint8_t *)&h;
    g4_status status = f->size < sizeof h ? G4_OK : g4_file_read(f, &h, 0, sizeof h, halt, err);
    if (!status) status = g4_file_check_header(f, err);
    if (!status) *data_offset = g4_file_data_offset(f);
    f->data = NULL;
    return status;
}

static g4_status g4_file_open_path(g4_file *f, const g4_engine_options *opt, g4_halt *halt, g4_error *err)
{
    size_t data_offset = 0;
    f->is_copy = opt->no_mmap != 0;
    g4_status status = g4_file_enter(f, opt->model_path, err);
    if (!status && f->is_copy) status = g4_file_read_header(f, &data_offset, halt, err);
    if (!status) status = g4_file_map(f, err);
    return status || !f->is_copy ? status : g4_file_read(f, f->mapping, 0, data_offset, halt, err);
}

g4_status g4_file_open(g4_file *f, const g4_engine_options *opt, const g4_allocator *a, g4_halt *halt, g4_error *err)
{
    memset(f, 0, sizeof *f);
    if (!opt->model_path && !opt->model_data)
        return g4_fail(err, G4_ERR_ARGUMENT, "neither model_path nor model_data is given");
    if (!opt->model_path && (uintptr_t)opt->model_data % G4_ALIGN != 0)
        return g4_fail(err, G4_ERR_ARGUMENT, "model_data is not aligned to %d bytes", G4_ALIGN);
    g4_error inner = { G4_OK, "" };
    f->data = opt->model_data;
    f->size = opt->model_size;
    g4_status status = opt->model_path ? g4_file_open_path(f, opt, halt, &inner) : G4_OK;
    if (!status) status = g4_file_check_header(f, &inner);
    if (!status) status = g4_file_check_tables(f, a, &inner);
    if (!status) return G4_OK;
    g4_file_close(f, a);
    return g4_fail(err, status, "%.100s: %.150s", opt->model_path ? opt->model_path : "model_data", inner.message);
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
    if (!b->status) b->status = g4_halt_check(b->halt, b->err);
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

/* Do n numbers make scales? 0 is none. */
static int g4_are_scales(const float *x, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        if (!(x[i] >= 0 && x[i] <= FLT_MAX)) return 0;
    return 1;
}

const float *g4_bind_act(g4_binder *b, const char *prefix, int layer, uint64_t n)
{
    char name[64];
    g4_bind_name(name, prefix, layer, "act");
    if (b->status) return NULL;
    if (!g4_bind_find(b, name)) {
        if (b->static_acts)
            b->status = g4_fail(b->err, G4_ERR_ARGUMENT,
                                "static activations: no tensor %s: the model file was made from a checkpoint without "
                                "scales of activations, or by an earlier export.py",
                                name);
        return NULL;
    }
    const float *act = g4_bind_array(b, prefix, layer, "act", n, 2);
    if (act && !g4_are_scales(act, 2 * n))
        b->status = g4_fail(b->err, G4_ERR_FORMAT, "tensor %s: scales below 0, infinite or no numbers", name);
    return b->static_acts && !b->status ? act : NULL;
}

/* Everything in the file must have been asked for: a tensor nobody reads means that writer and reader disagree. */
void g4_bind_end(g4_binder *b)
{
    for (int i = 0; i < b->file->n_tensors && !b->status; i++)
        if (!b->file->bound[i])
            b->status = g4_fail(b->err, G4_ERR_FORMAT, "tensor %s is not one this model has", b->file->table[i].name);
}
