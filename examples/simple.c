/* simple.c - the text decoder of every Gemma 4 model (E2B, E4B, 26B-A4B, 31B) and of Gemma 3, as one function.
 *
 *     simple MODEL.g4 2,651,9 [N [FILE]]
 *
 * evaluates the token ids, prints the N most likely ids that follow (8 if nothing is said), and writes the logits of
 * every given id to FILE: float32, one row of the vocabulary after the other.
 *
 * This is MODEL.md, sections 2 and 3, as a program: float32, one token at a time, plain loops, no threads. Read `forward`
 * (5) with that text beside it; what stands before it is the model file (1, 2, 3) and the building blocks (4). Nothing
 * but the C library is used, and no code is shared with the engine, so that each can prove the other right.
 *
 * What is not here: pictures and sound, text instead of ids, chat, sampling, and speed. The engine rounds the inputs of
 * quantised matrices to 8 bits and keeps keys and values in 16; here all is float32, and weights become float32 block by
 * block as they are read. The engine checks every field of a file before it believes any. This reader checks that the
 * file is whole and that its tensors have the shapes they should have, and trusts the numbers in it.
 *
 * Shapes are (rows, cols), the last index contiguous. A matrix (out, in) maps `in` inputs to `out` outputs. No linear
 * layer of the decoder has a bias. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static _Noreturn void fail(int status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "simple: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(status);
}

/* ---- 1. The model file ---------------------------------------------------------------------------
 *
 * A .g4 file is a header, a configuration, a tokenizer (not read here), a table of tensors, and the tensors. All of it
 * is little-endian, and offsets count from the start of the file. The structs below lie in the file as they stand. */

typedef struct {
    char magic[8];    /* GEMMA4.C */
    uint32_t version; /* 1 */
    uint32_t endian;  /* 0x01020304 */
    uint64_t file_size, reserved0[2], checksum;
    uint64_t config_offset, config_size; /* a config, then n_layers layer_configs */
    uint64_t tokenizer_offset, tokenizer_size;
    uint64_t table_offset, n_tensors;
    uint64_t data_offset, reserved1[3];
} header;

enum { TIED = 1, V_NORM = 2 }; /* config.flags: the head is the embedding; values are normed */

typedef struct {
    uint32_t size, layer_size; /* bytes of this struct and of a layer_config in this file: later ones may be longer */
    char name[64];
    uint32_t flags;
    uint32_t n_layers, hidden, n_vocab, n_heads, window, max_ctx;
    uint32_t ple_dim; /* width of the per-layer embeddings; 0: none */
    uint32_t n_experts, n_experts_used, expert_dim;
    float eps, attn_scale, softcap, embed_scale; /* softcap 0: none */
    uint32_t chat_template, bos, eos, pad, unk, n_stop, stop[7];
    float temperature, top_p;
    uint32_t top_k;
    uint32_t image_begin, image_token, image_end; /* ids; 0 when the model has none */
    uint32_t audio_begin, audio_token, audio_end, video_token;
} config; /* the towers for pictures and sound follow */

enum { FULL = 1, K_EQ_V = 2, MOE = 4, SCALAR = 8 }; /* layer_config.flags: full (else sliding) attention; ... */

typedef struct {
    uint32_t flags;
    uint32_t n_kv_heads, head_dim;
    uint32_t mlp_dim;
    uint32_t kv_source; /* the layer whose keys and values this one reads: itself when it owns some */
} layer_config;

enum { F32 = 0, BF16 = 1, Q8_0 = 2, Q4_0 = 3 };         /* entry.type */
enum { PLAIN = 0, ROWS = 1, GROUPS = 2 };               /* entry.layout */
enum { SCALE_NONE = 0, SCALE_F16 = 1, SCALE_BF16 = 2 }; /* entry.scale_type */

typedef struct {
    char name[64];
    uint32_t type, layout, scale_type, n_dims;
    uint64_t dims[3]; /* (n), (rows, cols) or (experts, rows, cols); unused ones are 1 */
    uint64_t offset, size, reserved;
} entry;

typedef struct { /* a matrix in the file, in one of the layouts below */
    const uint8_t *data;
    uint32_t type, layout, scale_type;
    size_t rows, cols;
    size_t width; /* cols, padded to a multiple of 64 with zeros: what the layouts count in */
    size_t bytes; /* of one matrix: with experts, from one to the next */
} matrix;

typedef struct {
    layer_config cfg;
    const float *attn_norm, *attn_post_norm, *mlp_norm, *mlp_post_norm; /* (hidden) */
    matrix q;                                                           /* (n_heads * head_dim, hidden) */
    matrix k, v;           /* (n_kv_heads * head_dim, hidden); only where kv_source is the layer; no v with K_EQ_V */
    matrix o;              /* (hidden, n_heads * head_dim) */
    const float *q_norm;   /* (head_dim): one for all heads */
    const float *k_norm;   /* (head_dim) */
    matrix gate_up;        /* (2 * mlp_dim padded to 16, hidden): 16 rows of the gate, the same 16 of up, and so on */
    matrix down;           /* (hidden, mlp_dim) */
    float scalar;          /* 1 without SCALAR */
    matrix ple_gate;       /* (ple_dim, hidden); this and the next two with per-layer embeddings */
    matrix ple_proj;       /* (hidden, ple_dim) */
    const float *ple_norm; /* (hidden) */
    matrix router;         /* (n_experts, hidden); this and the rest with MOE */
    const float *router_scale;                       /* (hidden) */
    const float *expert_scale;                       /* (n_experts) */
    const float *moe_norm, *post_norm1, *post_norm2; /* (hidden) */
    matrix experts_gate_up; /* n_experts of (2 * expert_dim padded to 16, hidden), laid out as gate_up */
    matrix experts_down;    /* n_experts of (hidden, expert_dim) */
    float *keys, *values;   /* (n_pos, n_kv_heads * head_dim): what owners keep of each position, after norm and RoPE */
} layer;

typedef struct {
    const char *path;
    const uint8_t *file; /* mapped: only what is used is read from disk */
    size_t size;
    header head;
    config cfg;
    matrix embed;          /* (n_vocab, hidden) */
    matrix output;         /* (n_vocab, hidden): the head; the embedding itself when TIED */
    const float *norm;     /* (hidden) */
    const float *rope[2];  /* (head_dim / 2) of sliding and of full layers: the angle per position of each pair */
    matrix ple_embed;      /* (n_vocab, n_layers * ple_dim) */
    matrix ple_context;    /* (n_layers * ple_dim, hidden) */
    const float *ple_norm; /* (ple_dim): one for all layers */
    layer *layers;         /* (n_layers) */
    /* The activations of one token. */
    float *x;            /* (hidden): the residual stream */
    float *normed;       /* (hidden): x after a norm */
    float *out;          /* (hidden): what a branch adds to x */
    float *one, *sum;    /* (hidden): one expert's output; the sum of all */
    float *q, *heads;    /* (n_heads * head_dim): queries; what attention read for them */
    float *scores;       /* (n_pos) */
    float *wide;         /* (the widest mlp_dim, expert_dim or ple_dim): inside a feed-forward */
    float *share, *gain; /* (n_experts): what the router says; the same for those that are taken, else 0 */
    float *per_layer;    /* (n_layers * ple_dim): the token's per-layer inputs */
    float *context;      /* (n_layers * ple_dim): their context part */
    float *logits;       /* (n_vocab) */
} model;

/* ---- 2. Weights --------------------------------------------------------------------------------
 *
 * Four types: float32; bf16, which is the upper half of a float32; and two with a scale d of 16 bits for each 32 values
 * of a row, q8_0 with values d * (-128..127) and q4_0 with values d * (-8..7), stored + 8.
 *
 * Two layouts. ROWS is for tables that are looked up: one row after the other, its scales in front. GROUPS is for
 * matrices that are multiplied, and it suits vector instructions, whose lanes are 16 rows: rows come in groups of 16,
 * inside a group columns in steps of 64, inside a step 4 columns (2 for bf16, 1 for float32) of all 16 rows side by
 * side. A reader gives the 32 values of one row from column c on, a multiple of 32. r is the row in its group. */

static float from_bf16(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, sizeof x);
    return x;
}

/* Exponent and mantissa, moved to their places in a float32, stand for 2^-112 of the value: the biases are 15, 127. */
static float from_f16(uint16_t bits)
{
    const uint32_t wide = (uint32_t)(bits & 0x7fff) << 13;
    float x;
    memcpy(&x, &wide, sizeof x);
    return (bits & 0x8000 ? -0x1p112f : 0x1p112f) * x;
}

static float scale_at(const matrix *w, const uint8_t *p)
{
    const uint16_t bits = (uint16_t)(p[0] | p[1] << 8);
    return w->scale_type == SCALE_BF16 ? from_bf16(bits) : from_f16(bits);
}

static void read_f32(float out[32], const matrix *w, size_t row, size_t c)
{
    const float *p = (const float *)(const void *)w->data, *group = p + row / 16 * 16 * w->width;
    for (size_t i = 0; i < 32; i++)
        out[i] = w->layout == ROWS ? p[row * w->width + c + i] : group[(c + i) * 16 + row % 16];
}

static void read_bf16(float out[32], const matrix *w, size_t row, size_t c)
{
    const uint16_t *p = (const uint16_t *)(const void *)w->data, *group = p + row / 16 * 16 * w->width;
    for (size_t i = 0; i < 32; i++) {
        const size_t in_group = (c + i) / 2 * 32 + row % 16 * 2 + i % 2;
        out[i] = from_bf16(w->layout == ROWS ? p[row * w->width + c + i] : group[in_group]);
    }
}

static void read_q8_0(float out[32], const matrix *w, size_t row, size_t c)
{
    const size_t r = row % 16, step_bytes = 2 * 16 * 2 + 64 * 16, scales = w->width / 32 * 2;
    const uint8_t *line = w->data + row * (scales + w->width);
    const uint8_t *step = w->data + (row / 16 * (w->width / 64) + c / 64) * step_bytes, *block = step + c / 32 % 2 * 32;
    const float d = scale_at(w, w->layout == ROWS ? line + c / 32 * 2 : block + 2 * r);
    for (size_t i = 0; i < 32; i++) {
        const size_t in_step = c % 64 + i;
        out[i] = d * (float)(int8_t)(w->layout == ROWS ? line[scales + c + i]
                                                       : step[64 + in_step / 4 * 64 + r * 4 + in_step % 4]);
    }
}

/* A byte holds two values. In ROWS these are i and i + 16 of a block; in GROUPS a run of 8 columns holds its first 4 in
 * the low and its last 4 in the high halves. */
static void read_q4_0(float out[32], const matrix *w, size_t row, size_t c)
{
    const size_t r = row % 16, step_bytes = 2 * 16 * 2 + 64 * 16 / 2, scales = w->width / 32 * 2;
    const uint8_t *line = w->data + row * (scales + w->width / 2), *block = line + scales + c / 2;
    const uint8_t *step = w->data + (row / 16 * (w->width / 64) + c / 64) * step_bytes;
    const float d = scale_at(w, w->layout == ROWS ? line + c / 32 * 2 : step + c / 32 % 2 * 32 + 2 * r);
    for (size_t i = 0; i < 32; i++) {
        const uint8_t both = w->layout == ROWS ? block[i % 16] : step[64 + (c % 64 + i) / 8 * 64 + r * 4 + i % 4];
        const int high = (w->layout == ROWS ? i / 16 : i / 4 % 2) != 0;
        out[i] = d * (float)((high ? both >> 4 : both & 15) - 8);
    }
}

static void read_block(float out[32], const matrix *w, size_t row, size_t c)
{
    switch (w->type) {
    case F32: read_f32(out, w, row, c); break;
    case BF16: read_bf16(out, w, row, c); break;
    case Q8_0: read_q8_0(out, w, row, c); break;
    default: read_q4_0(out, w, row, c);
    }
}

static size_t block_end(const matrix *w, size_t c) { return c + 32 < w->cols ? c + 32 : w->cols; }

/* out (cols): one row of a table. */
static void read_row(float *out, const matrix *w, size_t row)
{
    float block[32];
    for (size_t c = 0; c < w->cols; c += 32) {
        read_block(block, w, row, c);
        memcpy(out + c, block, (block_end(w, c) - c) * sizeof *out);
    }
}

/* Row `row` of w times x (cols). */
static float row_times(const matrix *w, size_t row, const float *x)
{
    float block[32], sum = 0;
    for (size_t c = 0; c < w->cols; c += 32) {
        float part = 0;
        read_block(block, w, row, c);
        for (size_t i = c; i < block_end(w, c); i++) part += block[i - c] * x[i];
        sum += part;
    }
    return sum;
}

/* ---- 3. Opening a model ------------------------------------------------------------------------- */

/* The tensor called `name`, or `l.L.name` of layer l when that is not negative. Its shape must be (d0), (d0, d1) or
 * (d0, d1, d2), where unused dimensions are 1. */
static matrix find(const model *m, int l, const char *name, uint64_t d0, uint64_t d1, uint64_t d2)
{
    static const uint64_t bytes_of_64[] = { 64 * 4, 64 * 2, 64 + 2 * 2, 32 + 2 * 2 }; /* by type */
    char full[64];
    if (l < 0)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "l.%d.%s", l, name);
    const entry *t = (const entry *)(const void *)(m->file + m->head.table_offset), *end = t + m->head.n_tensors;
    while (t < end && strncmp(t->name, full, sizeof t->name) != 0) t++;
    if (t == end) fail(1, "%s: tensor %s is missing", m->path, full);
    if (t->type > Q4_0 || t->n_dims < 1 || t->n_dims > 3 || t->dims[0] != d0 || t->dims[1] != d1 || t->dims[2] != d2)
        fail(1, "%s: tensor %s has another shape than the configuration says", m->path, full);
    matrix w = { .type = t->type, .layout = t->layout, .scale_type = t->scale_type, .cols = t->dims[t->n_dims - 1] };
    const uint64_t n = t->n_dims == 3 ? d0 : 1;
    w.rows = t->n_dims == 1 ? 1 : t->dims[t->n_dims - 2];
    w.width = (w.cols + 63) / 64 * 64;
    w.bytes = t->size / n;
    const uint64_t stored_rows = t->layout == GROUPS ? (w.rows + 15) / 16 * 16 : w.rows;
    const uint64_t need = t->layout == PLAIN ? w.rows * w.cols * 4 : stored_rows * (w.width / 64) * bytes_of_64[w.type];
    if (w.bytes < need || t->size > m->size || t->offset > m->size - t->size || t->offset % 64 != 0)
        fail(1, "%s: tensor %s does not lie in the file", m->path, full);
    w.data = m->file + t->offset;
    return w;
}

/* A vector of n float32. */
static const float *find_vector(const model *m, int l, const char *name, size_t n)
{
    const matrix w = find(m, l, name, n, 1, 1);
    if (w.layout != PLAIN || w.type != F32) fail(1, "%s: tensor %s is not float32", m->path, name);
    return (const float *)(const void *)w.data;
}

static void find_layer(const model *m, layer *w, int l)
{
    const config *c = &m->cfg;
    const size_t hidden = c->hidden, q_dim = (size_t)c->n_heads * w->cfg.head_dim;
    const size_t kv_dim = (size_t)w->cfg.n_kv_heads * w->cfg.head_dim;
    w->attn_norm = find_vector(m, l, "attn_norm", hidden);
    w->attn_post_norm = find_vector(m, l, "attn_post_norm", hidden);
    w->mlp_norm = find_vector(m, l, "mlp_norm", hidden);
    w->mlp_post_norm = find_vector(m, l, "mlp_post_norm", hidden);
    w->q = find(m, l, "q", q_dim, hidden, 1);
    w->o = find(m, l, "o", hidden, q_dim, 1);
    w->q_norm = find_vector(m, l, "q_norm", w->cfg.head_dim);
    if (w->cfg.kv_source == (uint32_t)l) {
        w->k = find(m, l, "k", kv_dim, hidden, 1);
        w->k_norm = find_vector(m, l, "k_norm", w->cfg.head_dim);
        if (!(w->cfg.flags & K_EQ_V)) w->v = find(m, l, "v", kv_dim, hidden, 1);
    }
    w->gate_up = find(m, l, "gate_up", 2 * ((w->cfg.mlp_dim + 15) / 16 * 16), hidden, 1);
    w->down = find(m, l, "down", hidden, w->cfg.mlp_dim, 1);
    w->scalar = w->cfg.flags & SCALAR ? *find_vector(m, l, "scalar", 1) : 1;
    if (c->ple_dim) {
        w->ple_gate = find(m, l, "ple_gate", c->ple_dim, hidden, 1);
        w->ple_proj = find(m, l, "ple_proj", hidden, c->ple_dim, 1);
        w->ple_norm = find_vector(m, l, "ple_norm", hidden);
    }
    if (w->cfg.flags & MOE) {
        w->router = find(m, l, "router", c->n_experts, hidden, 1);
        w->router_scale = find_vector(m, l, "router_scale", hidden);
        w->expert_scale = find_vector(m, l, "expert_scale", c->n_experts);
        w->moe_norm = find_vector(m, l, "moe_norm", hidden);
        w->post_norm1 = find_vector(m, l, "mlp_post_norm1", hidden);
        w->post_norm2 = find_vector(m, l, "mlp_post_norm2", hidden);
        w->experts_gate_up = find(m, l, "experts.gate_up", c->n_experts, 2 * ((c->expert_dim + 15) / 16 * 16), hidden);
        w->experts_down = find(m, l, "experts.down", c->n_experts, hidden, c->expert_dim);
    }
}

static void open_model(model *m, const char *path)
{
    *m = (model) { .path = path };
    const int fd = open(path, O_RDONLY);
    const off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    if (size < 0) fail(1, "%s: %s", path, strerror(errno));
    if ((size_t)size < sizeof m->head) fail(1, "%s: too short for a model file", path);
    void *file = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
    if (file == MAP_FAILED) fail(1, "%s: %s", path, strerror(errno));
    close(fd);
    m->file = file;
    m->size = (size_t)size;
    memcpy(&m->head, m->file, sizeof m->head);

    const header *h = &m->head;
    if (memcmp(h->magic, "GEMMA4.C", 8) != 0) fail(1, "%s: not a model file: wrong magic", path);
    if (h->endian != 0x01020304 || h->version != 1) fail(1, "%s: not a little-endian file of version 1", path);
    if (h->file_size != m->size)
        fail(1, "%s: cut off: %zu bytes of %llu", path, m->size, (unsigned long long)h->file_size);
    if (h->table_offset > m->size || h->table_offset % 8 ||
        h->n_tensors > (m->size - h->table_offset) / sizeof(entry) || h->config_offset > m->size ||
        h->config_size > m->size - h->config_offset || h->config_size < 8)
        fail(1, "%s: the configuration or the table does not lie in the file", path);

    config *c = &m->cfg;
    const uint8_t *at = m->file + h->config_offset;
    memcpy(c, at, 8); /* both sizes; what an older file lacks stays 0 */
    const size_t fixed = c->size, each = c->layer_size;
    if (fixed > h->config_size) fail(1, "%s: the configuration is cut off", path);
    memcpy(c, at, fixed < sizeof *c ? fixed : sizeof *c);
    if (c->n_layers == 0) fail(1, "%s: there is no text decoder in it", path);
    if (each < sizeof(layer_config) || c->n_layers > (h->config_size - fixed) / each)
        fail(1, "%s: the configuration is cut off", path);

    const size_t hidden = c->hidden, all_ple = (size_t)c->n_layers * c->ple_dim;
    m->embed = find(m, -1, "embed", c->n_vocab, hidden, 1);
    m->output = c->flags & TIED ? m->embed : find(m, -1, "head", c->n_vocab, hidden, 1);
    m->norm = find_vector(m, -1, "norm", hidden);
    if (c->ple_dim) {
        m->ple_embed = find(m, -1, "ple.embed", c->n_vocab, all_ple, 1);
        m->ple_context = find(m, -1, "ple.proj", all_ple, hidden, 1);
        m->ple_norm = find_vector(m, -1, "ple.norm", c->ple_dim);
    }
    m->layers = calloc(c->n_layers, sizeof *m->layers);
    if (!m->layers) fail(1, "out of memory");
    for (uint32_t l = 0; l < c->n_layers; l++) {
        layer *w = &m->layers[l];
        memcpy(&w->cfg, at + fixed + l * each, sizeof w->cfg);
        if (w->cfg.kv_source > l || w->cfg.n_kv_heads == 0 || w->cfg.n_kv_heads > c->n_heads)
            fail(1, "%s: layer %u has no keys to read", path, l);
        find_layer(m, w, (int)l);
        const uint32_t full = w->cfg.flags & FULL;
        m->rope[full] = find_vector(m, -1, full ? "rope.full" : "rope.sliding", w->cfg.head_dim / 2);
    }
}

static float *floats(size_t rows, size_t cols)
{
    float *p = calloc(rows * cols + 1, sizeof *p);
    if (!p) fail(1, "out of memory");
    return p;
}

/* Room for the activations of one token, and for the keys and values of n_pos positions. The engine keeps a ring of
 * `window` positions for sliding layers. */
static void allocate(model *m, size_t n_pos)
{
    const config *c = &m->cfg;
    size_t q_dim = 0, wide = c->expert_dim > c->ple_dim ? c->expert_dim : c->ple_dim;
    for (uint32_t l = 0; l < c->n_layers; l++) {
        layer *w = &m->layers[l];
        if (w->cfg.kv_source == l) {
            w->keys = floats(n_pos, (size_t)w->cfg.n_kv_heads * w->cfg.head_dim);
            w->values = floats(n_pos, (size_t)w->cfg.n_kv_heads * w->cfg.head_dim);
        }
        if (w->q.rows > q_dim) q_dim = w->q.rows;
        if (w->cfg.mlp_dim > wide) wide = w->cfg.mlp_dim;
    }
    m->x = floats(1, c->hidden);
    m->normed = floats(1, c->hidden);
    m->out = floats(1, c->hidden);
    m->one = floats(1, c->hidden);
    m->sum = floats(1, c->hidden);
    m->q = floats(1, q_dim);
    m->heads = floats(1, q_dim);
    m->scores = floats(1, n_pos);
    m->wide = floats(1, wide);
    m->share = floats(1, c->n_experts);
    m->gain = floats(1, c->n_experts);
    m->logits = floats(1, c->n_vocab);
    m->per_layer = floats(c->n_layers, c->ple_dim);
    m->context = floats(c->n_layers, c->ple_dim);
}

/* ---- 4. Building blocks ------------------------------------------------------------------------- */

/* y[i] = x[i] * (mean(x^2) + eps)^-0.5 * w[i]; without w when it is NULL. y may be x. All (n). */
static void rmsnorm(float *y, const float *x, const float *w, size_t n, float eps)
{
    float squares = 0;
    for (size_t i = 0; i < n; i++) squares += x[i] * x[i];
    const float inverse = 1 / sqrtf(squares / (float)n + eps);
    for (size_t i = 0; i < n; i++) y[i] = x[i] * inverse * (w ? w[i] : 1);
}

static float gelu(float x)
{
    const float root = 0.79788456f; /* sqrt(2 / pi) */
    return 0.5f * x * (1 + tanhf(root * (x + 0.044715f * x * x * x)));
}

/* x (n) becomes exp(x) / sum(exp(x)); the largest is subtracted first, so that nothing overflows. */
static void softmax(float *x, size_t n)
{
    float most = x[0], sum = 0;
    for (size_t i = 1; i < n; i++) most = fmaxf(most, x[i]);
    for (size_t i = 0; i < n; i++) sum += x[i] = expf(x[i] - most);
    for (size_t i = 0; i < n; i++) x[i] /= sum;
}

/* The pairs (i, i + d/2) of a head x (d) turn by pos * frequency[i], frequency (d / 2). The file holds the frequencies:
 * theta^(-2i/d) for sliding layers; for full layers 0 behind the first quarter of the pairs, which so never turn. */
static void rope(float *x, const float *frequency, size_t d, size_t pos)
{
    for (size_t i = 0; i < d / 2; i++) {
        const float angle = (float)pos * frequency[i], cosine = cosf(angle), sine = sinf(angle);
        const float a = x[i], b = x[i + d / 2];
        x[i] = a * cosine - b * sine;
        x[i + d / 2] = b * cosine + a * sine;
    }
}

/* y = w x; y (rows), x (cols). Nearly all the time goes here. */
static void matmul(float *y, const matrix *w, const float *x)
{
    for (size_t r = 0; r < w->rows; r++) y[r] = row_times(w, r, x);
}

/* y = down(gelu(gate x) * (up x)); x, y (hidden), scratch (down.cols). Row i of the gate and of up stand 16 apart. */
static void mlp(float *y, const matrix *gate_up, const matrix *down, const float *x, float *scratch)
{
    for (size_t i = 0; i < down->cols; i++) {
        const size_t row = i / 16 * 32 + i % 16;
        scratch[i] = gelu(row_times(gate_up, row, x)) * row_times(gate_up, row + 16, x);
    }
    matmul(y, down, scratch);
}

static matrix expert(const matrix *all, size_t e)
{
    matrix one = *all;
    one.data += e * all->bytes;
    return one;
}

/* ---- 5. The decoder ------------------------------------------------------------------------------ */

/* Token at position pos, behind the tokens that were given before: logits (n_vocab) of what comes next. */
static void forward(model *m, size_t token, size_t pos, float *logits)
{
    const config *c = &m->cfg;
    const size_t hidden = c->hidden, ple_dim = c->ple_dim;
    float *x = m->x, *a = m->normed, *out = m->out;

    /* Embedding: x = embed[token] * sqrt(hidden). The soft tokens of a medium would stand here in place of x, unscaled.
     * A placeholder id with no medium behind it reads as the pad token, in both tables. */
    const int is_image = c->image_token && token == c->image_token,
              is_video = c->video_token && token == c->video_token;
    if (is_image || is_video || (c->audio_token && token == c->audio_token)) token = c->pad;
    read_row(x, &m->embed, token);
    for (size_t i = 0; i < hidden; i++) x[i] *= c->embed_scale;

    /* Per-layer embeddings (E2B, E4B): one vector for each layer, the sum of a token part, which is looked up, and a
     * context part, which is projected from x and normed layer by layer with one weight vector. */
    if (ple_dim) {
        read_row(m->per_layer, &m->ple_embed, token);
        matmul(m->context, &m->ple_context, x);
        for (size_t l = 0; l < c->n_layers; l++) {
            float *p = m->per_layer + l * ple_dim, *context = m->context + l * ple_dim; /* (ple_dim) */
            for (size_t i = 0; i < ple_dim; i++) context[i] /= sqrtf((float)hidden);
            rmsnorm(context, context, m->ple_norm, ple_dim, c->eps);
            for (size_t i = 0; i < ple_dim; i++) p[i] = (p[i] * sqrtf((float)ple_dim) + context[i]) * sqrtf(0.5f);
        }
    }

    for (size_t l = 0; l < c->n_layers; l++) {
        const layer *w = &m->layers[l];
        const layer *source = &m->layers[w->cfg.kv_source]; /* the owner of the keys and values, mostly w itself */
        const int full = (w->cfg.flags & FULL) != 0;
        const float *frequency = m->rope[full];
        const size_t d = w->cfg.head_dim, n_kv = w->cfg.n_kv_heads, kv_dim = n_kv * d;

        /* Attention. Queries: each head is normed and then turned by its position. */
        rmsnorm(a, x, w->attn_norm, hidden, c->eps);
        matmul(m->q, &w->q, a);
        for (float *q = m->q; q < m->q + c->n_heads * d; q += d) {
            rmsnorm(q, q, w->q_norm, d, c->eps);
            rope(q, frequency, d, pos);
        }

        /* Keys and values. The last layers of E2B and E4B own none: they read those of the last owner of their type.
         * On full layers of the large models V is K, as it leaves the matrix, before its norm and RoPE. In Gemma 4 the
         * heads of v are normed, without a weight. */
        if (source == w) {
            float *keys = w->keys + pos * kv_dim, *values = w->values + pos * kv_dim; /* (n_kv_heads * head_dim) */
            matmul(keys, &w->k, a);
            if (w->cfg.flags & K_EQ_V)
                memcpy(values, keys, kv_dim * sizeof *values);
            else
                matmul(values, &w->v, a);
            for (size_t h = 0; h < n_kv; h++) {
                if (c->flags & V_NORM) rmsnorm(values + h * d, values + h * d, NULL, d, c->eps);
                rmsnorm(keys + h * d, keys + h * d, w->k_norm, d, c->eps);
                rope(keys + h * d, frequency, d, pos);
            }
        }

        /* Each query head weighs the values of its key/value head, which n_heads / n_kv_heads of them share. A full
         * layer sees all positions so far; a sliding one the last `window`, its own among them. attn_scale is 1 in
         * Gemma 4, where the norms of q and k took its place. */
        const size_t first = full || pos < c->window ? 0 : pos - c->window + 1;
        for (size_t h = 0; h < c->n_heads; h++) {
            const size_t at = h / (c->n_heads / n_kv) * d; /* of the key/value head in a row of keys and values */
            const float *q = m->q + h * d;                 /* (head_dim) */
            float *head = m->heads + h * d;                /* (head_dim) */
            for (size_t j = first; j <= pos; j++) {
                const float *k = source->keys + j * kv_dim + at;
                float score = 0;
                for (size_t i = 0; i < d; i++) score += q[i] * k[i];
                m->scores[j - first] = score * c->attn_scale;
            }
            softmax(m->scores, pos - first + 1);
            memset(head, 0, d * sizeof *head);
            for (size_t j = first; j <= pos; j++) {
                const float *v = source->values + j * kv_dim + at;
                for (size_t i = 0; i < d; i++) head[i] += m->scores[j - first] * v[i];
            }
        }
        matmul(out, &w->o, m->heads);
        rmsnorm(out, out, w->attn_post_norm, hidden, c->eps);
        for (size_t i = 0; i < hidden; i++) x[i] += out[i];

        /* MLP, dense. The layers of E2B without keys of their own have twice the width. */
        rmsnorm(a, x, w->mlp_norm, hidden, c->eps);
        mlp(out, &w->gate_up, &w->down, a, m->wide);

        /* Experts (26B-A4B), beside the dense MLP. Router and experts read the residual stream, each through a norm of
         * its own. The n_experts_used best are taken, ties to the lower index, and their shares divided by their sum. */
        if (w->cfg.flags & MOE) {
            float *share = m->share, *gain = m->gain, total = 0; /* (n_experts) */
            rmsnorm(a, x, w->router_scale, hidden, c->eps);      /* the weightless norm, times router_scale */
            for (size_t i = 0; i < hidden; i++) a[i] /= sqrtf((float)hidden);
            matmul(share, &w->router, a);
            softmax(share, c->n_experts);
            for (size_t e = 0; e < c->n_experts; e++) {
                size_t better = 0;
                for (size_t i = 0; i < c->n_experts; i++)
                    better += share[i] > share[e] || (share[i] == share[e] && i < e);
                gain[e] = better < c->n_experts_used ? share[e] : 0;
                total += gain[e];
            }
            rmsnorm(a, x, w->moe_norm, hidden, c->eps);
            memset(m->sum, 0, hidden * sizeof *m->sum);
            for (size_t e = 0; e < c->n_experts; e++) {
                if (gain[e] == 0) continue;
                const matrix gate_up = expert(&w->experts_gate_up, e), down = expert(&w->experts_down, e);
                mlp(m->one, &gate_up, &down, a, m->wide);
                for (size_t i = 0; i < hidden; i++) m->sum[i] += gain[e] / total * w->expert_scale[e] * m->one[i];
            }
            rmsnorm(out, out, w->post_norm1, hidden, c->eps);
            rmsnorm(m->sum, m->sum, w->post_norm2, hidden, c->eps);
            for (size_t i = 0; i < hidden; i++) out[i] += m->sum[i];
        }
        rmsnorm(out, out, w->mlp_post_norm, hidden, c->eps);
        for (size_t i = 0; i < hidden; i++) x[i] += out[i];

        /* The layer's own input. Its gate reads the residual stream without a norm. */
        if (ple_dim) {
            matmul(m->wide, &w->ple_gate, x);
            for (size_t i = 0; i < ple_dim; i++) m->wide[i] = gelu(m->wide[i]) * m->per_layer[l * ple_dim + i];
            matmul(out, &w->ple_proj, m->wide);
            rmsnorm(out, out, w->ple_norm, hidden, c->eps);
            for (size_t i = 0; i < hidden; i++) x[i] += out[i];
        }

        /* One number per layer, behind everything else. */
        for (size_t i = 0; i < hidden; i++) x[i] *= w->scalar;
    }

    /* Head: logits = 30 * tanh(embed . rmsnorm(x, norm) / 30). */
    rmsnorm(a, x, m->norm, hidden, c->eps);
    matmul(logits, &m->output, a);
    for (size_t i = 0; c->softcap > 0 && i < c->n_vocab; i++) logits[i] = c->softcap * tanhf(logits[i] / c->softcap);
}

/* ---- 6. The command line -------------------------------------------------------------------------- */

/* A whole number from *text on, which ends at one of the characters of `ends` or at the end of the text. *text moves
 * there. -1: there is none. */
static long read_number(const char **text, char ends)
{
    char *end;
    errno = 0;
    const long n = strtol(*text, &end, 10);
    const int sound = **text >= '0' && **text <= '9' && errno == 0 && (*end == 0 || *end == ends);
    *text = end;
    return sound ? n : -1;
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 5) fail(2, "usage: simple MODEL.g4 2,651,9 [N [FILE]]");
    const char *ids = argv[2], *count = argc > 3 ? argv[3] : "8";
    size_t n_ids = 1;
    for (const char *p = ids; *p; p++) n_ids += *p == ',';
    const long n_new = read_number(&count, 0);
    if (n_new < 0) fail(2, "N is %s: it must be a number", argv[3]);

    long *given = calloc(n_ids, sizeof *given);
    if (!given) fail(1, "out of memory");
    for (size_t i = 0; i < n_ids; i++, ids++) /* behind its comma */
        if ((given[i] = read_number(&ids, ',')) < 0) fail(2, "%s: ids are numbers with commas between them", argv[2]);

    static model m; /* its memory goes with the process */
    open_model(&m, argv[1]);
    const size_t n_vocab = m.cfg.n_vocab;
    if (n_ids > m.cfg.max_ctx || (size_t)n_new > m.cfg.max_ctx - n_ids)
        fail(2, "%zu ids and %ld new ones: the model reads at most %u", n_ids, n_new, m.cfg.max_ctx);
    for (size_t i = 0; i < n_ids; i++)
        if ((size_t)given[i] >= n_vocab) fail(2, "id %ld: the vocabulary ends at %zu", given[i], n_vocab - 1);
    FILE *out = argc > 4 ? fopen(argv[4], "wb") : NULL;
    if (argc > 4 && !out) fail(1, "%s: %s", argv[4], strerror(errno));
    allocate(&m, n_ids + (size_t)n_new);

    size_t pos = 0;
    for (; pos < n_ids; pos++) {
        forward(&m, (size_t)given[pos], pos, m.logits);
        if (out && fwrite(m.logits, sizeof *m.logits, n_vocab, out) != n_vocab) fail(1, "%s: cannot write", argv[4]);
    }
    if (out && fclose(out) != 0) fail(1, "%s: cannot write", argv[4]);
    free(given);

    for (long i = 0; i < n_new; i++, pos++) {
        size_t best = 0; /* ties to the lower id */
        for (size_t id = 1; id < n_vocab; id++)
            if (m.logits[id] > m.logits[best]) best = id;
        printf(i > 0 ? ",%zu" : "%zu", best);
        fflush(stdout);
        if (i + 1 < n_new) forward(&m, best, pos, m.logits);
    }
    printf("\n");
    return 0;
}
