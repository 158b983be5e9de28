/* simple.c - the text decoder of all Gemma 4 models (E2B, E4B, 26B-A4B, 31B) and of Gemma 3 (text), as one function.
 *
 *     cc -std=c11 -O2 examples/simple.c -o build/simple -lm
 *     build/simple MODEL.g4 2,651,9 [N [FILE]]
 *
 * evaluates the token ids, prints the N ids that follow (8 if nothing is said), the most likely one each time, and
 * writes the logits of every given id to FILE: float32, one row of n_vocab after the other.
 *
 * It is MODEL.md, sections 2 and 3, as a program: float32, one token at a time, plain loops, no threads. Read `forward`
 * (section 5 below) with that text beside it; what stands before it is the model file (1 to 3) and the building blocks
 * (4). It includes the C library's headers only and shares no code with the engine, so each can prove the other right.
 *
 * Not here: pictures and sound, text instead of ids, chat, sampling, and speed. The engine rounds the inputs of
 * quantised matrices to 8 bits and keeps keys and values in 16; here all is float32, and weights become float32 row by
 * row, when they are used. The engine checks every field of a file before it believes any; this reader makes sure that
 * the file is whole and that tensors have the shapes they should have, and trusts the rest.
 *
 * Shapes are (rows, cols), the last index contiguous; a matrix (out, in) maps `in` inputs to `out` outputs. No linear
 * layer of the decoder has a bias. Arrays are declared with their shapes where they are first used, and so lie on the
 * stack: less than 1 MB with the largest model, and 4 bytes a position. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FAIL(status, ...) (fprintf(stderr, "simple: " __VA_ARGS__), fputc('\n', stderr), exit(status))

/* ---- 1. The model file ---------------------------------------------------------------------------
 *
 * A header, a configuration, a tokenizer (not read here), a table of tensors, and the tensors. All is little-endian,
 * and offsets count from the start of the file. These structs lie in the file as they stand. */

typedef struct {
    char magic[8];            /* GEMMA4.C */
    uint32_t version, endian; /* 1, 0x01020304 */
    uint64_t file_size, reserved0[2], checksum;
    uint64_t config_offset, config_size; /* a config, then n_layers layer_configs */
    uint64_t tokenizer_offset, tokenizer_size;
    uint64_t table_offset, n_tensors; /* of table entries */
    uint64_t data_offset, reserved1[3];
} header;

enum { TIED = 1, V_NORM = 2 }; /* flags of a config: the head is the embedding; the heads of v are normed */

typedef struct {
    uint32_t size, layer_size; /* of this struct and of a layer_config, in this file: both may have grown */
    char name[64];
    uint32_t flags;
    uint32_t n_layers, hidden, n_vocab, n_heads, window, max_ctx;
    uint32_t ple_dim;                               /* width of the per-layer embeddings; 0: none */
    uint32_t n_experts, n_experts_used, expert_dim; /* 0: none */
    float eps, attn_scale, softcap, embed_scale;    /* softcap 0: none */
    uint32_t chat_template, bos, eos, pad, unk, n_stop, stop[7];
    float temperature, top_p;
    uint32_t top_k;
    uint32_t image_begin, image_token, image_end; /* ids; 0: the model has none */
    uint32_t audio_begin, audio_token, audio_end, video_token;
} config; /* what belongs to the towers for pictures and sound follows */

enum {
    FULL = 1,
    K_EQ_V = 2,
    MOE = 4,
    SCALAR = 8
}; /* flags of a layer: full attention, else sliding; V is K; experts; a scalar */

typedef struct {
    uint32_t flags, n_kv_heads, head_dim, mlp_dim;
    uint32_t kv_source; /* the layer whose keys and values this one reads: itself, if it has its own */
} layer_config;

enum { F32, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K, Q2_ROW, Q4_ROW, Q8_ROW, N_TYPES };
enum { PLAIN = 0, ROWS = 1, GROUPS = 2 };
enum { SCALE_F16 = 1, SCALE_BF16 = 2 };

typedef struct {
    char name[64]; /* l.N.name for a tensor of layer N */
    uint32_t type, layout, scale_type, n_dims;
    uint64_t dims[3]; /* (n), (rows, cols) or (experts, rows, cols) */
    uint64_t offset, size, reserved;
} entry;

typedef struct {
    const char *path;
    const uint8_t *file; /* (size) bytes, mapped: what is not used is not read from disk */
    size_t size;
    header head;
    config cfg;
    layer_config *layers;   /* (n_layers) */
    float **keys, **values; /* (n_layers) of (n_pos, n_kv_heads * head_dim): what is remembered of earlier tokens */
} model;

/* ---- 2. Weights --------------------------------------------------------------------------------
 *
 * Float32; bf16, the upper half of a float32; and whole numbers q of 2 to 8 bits with scales. In blocks of 32
 * columns, with d and m for each:
 *     q8_0  d q, from -128 to 127        q4_0  d (q - 8)         q5_0  d (q - 16)
 *                                        q4_1  d q + m           q5_1  d q + m
 * In blocks of 256, with d and n for all and small whole numbers s and t for each 32 (q6_k: 16) of them:
 *     q4_k  d s q - n t                  q5_k  d s q - n t       q6_k  d s (q - 32)
 * With d in float32 for each row, repeated every 256 columns:
 *     q2_row  d (q - 2)                  q4_row  d (q - 8)         q8_row  d q, from -128 to 127
 *
 * Three layouts. PLAIN is float32 for vectors. ROWS is for tables that are looked up: one row after the other, as GGUF
 * has its blocks, but for q8_0 and q4_0, whose scales stand in front of a row. GROUPS is for matrices that are
 * multiplied and suits vector instructions, whose lanes are 16 rows: rows come in groups of 16, the columns of a group
 * in steps of 64 or 256, and inside a step 4 columns (2 for bf16, 1 for float32) of all 16 rows stand side by side. The
 * scales of a step are in front of it, the bits above the lower 4 of each q behind it.
 *
 * A reader gives the 32 values of one row from column c on, a multiple of 32. */

typedef struct {
    const uint8_t *data;
    uint32_t type, layout, scale_type;
    size_t rows, cols;
    size_t width; /* cols padded with zeros to whole steps */
    size_t bytes; /* from one expert to the next */
} matrix;

static const struct {
    size_t cols, group, row; /* columns of a step; its bytes in GROUPS, for 16 rows, and in ROWS, for one */
} steps[N_TYPES] = { [F32] = { 64, 4096, 256 },    [BF16] = { 64, 2048, 128 },   [Q8_0] = { 64, 1088, 68 },
                     [Q4_0] = { 64, 576, 36 },     [Q4_1] = { 64, 640, 40 },     [Q5_0] = { 64, 704, 44 },
                     [Q5_1] = { 64, 768, 48 },     [Q4_K] = { 256, 2368, 144 },  [Q5_K] = { 256, 2880, 176 },
                     [Q6_K] = { 256, 3392, 210 },  [Q2_ROW] = { 256, 1088, 68 }, [Q4_ROW] = { 256, 2112, 132 },
                     [Q8_ROW] = { 256, 4160, 260 } };

/* In GROUPS the step that holds column c of the row, in ROWS that row's part of it. */
static const uint8_t *step_at(const matrix *w, size_t row, size_t c)
{
    const size_t per_row = w->width / steps[w->type].cols, n = c / steps[w->type].cols;
    if (w->layout == ROWS) return w->data + (row * per_row + n) * steps[w->type].row;
    return w->data + (row / 16 * per_row + n) * steps[w->type].group;
}

static float from_bf16(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, sizeof x);
    return x;
}

/* A float32 with the same exponent and mantissa bits is 2^-112 of the value, since the biases are 15 and 127. */
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
        const size_t place = (c + i) / 2 * 32 + row % 16 * 2 + i % 2;
        out[i] = from_bf16(w->layout == ROWS ? p[row * w->width + c + i] : group[place]);
    }
}

static void read_q8_0(float out[32], const matrix *w, size_t row, size_t c)
{
    const size_t r = row % 16, b = c / 32 % 2, scales = w->width / 32 * 2; /* b: which half of the step */
    const uint8_t *line = w->data + row * (scales + w->width);
    const uint8_t *step = step_at(w, row, c);
    const float d = scale_at(w, w->layout == ROWS ? line + c / 32 * 2 : step + (b * 16 + r) * 2);
    for (size_t i = 0; i < 32; i++) {
        const uint8_t *q = w->layout == ROWS ? line + scales + c + i : step + 64 + (b * 8 + i / 4) * 64 + r * 4 + i % 4;
        out[i] = d * (float)(int8_t)*q;
    }
}

/* The lower 4 bits of column i of the 32: a byte holds two of them, in ROWS those of columns i and i + 16, in block b
 * of a step in GROUPS, for row r of the 16, those of i and i + 4 of 8 columns. */
static int row_nibble(const uint8_t *p, size_t i) { return i < 16 ? p[i] & 15 : p[i - 16] >> 4; }

static int step_nibble(const uint8_t *p, size_t r, size_t b, size_t i)
{
    const int both = p[(b * 4 + i / 8) * 64 + r * 4 + i % 4];
    return i / 4 % 2 ? both >> 4 : both & 15;
}

/* The fifth bit: in GROUPS a byte has those of every fourth column, from the lowest bit. */
static int row_bit(const uint8_t *p, size_t i) { return p[i / 8] >> i % 8 & 1; }

static int step_bit(const uint8_t *p, size_t r, size_t b, size_t i) { return p[(b * 16 + r) * 4 + i % 4] >> i / 4 & 1; }

static void read_q4_0(float out[32], const matrix *w, size_t row, size_t c)
{
    const size_t r = row % 16, b = c / 32 % 2, scales = w->width / 32 * 2;
    const uint8_t *line = w->data + row * (scales + w->width / 2), *step = step_at(w, row, c);
    const float d = scale_at(w, w->layout == ROWS ? line + c / 32 * 2 : step + (b * 16 + r) * 2);
    for (size_t i = 0; i < 32; i++) {
        const int q = w->layout == ROWS ? row_nibble(line + scales + c / 2, i) : step_nibble(step + 64, r, b, i);
        out[i] = d * (float)(q - 8);
    }
}

static void read_q4_1(float out[32], const matrix *w, size_t row, size_t c)
{
    const size_t r = row % 16, b = c / 32 % 2;
    const uint8_t *step = step_at(w, row, c), *block = step + b * 20;
    const float d = scale_at(w, w->layout == ROWS ? block : step + (b * 16 + r) * 2);
    const float m = scale_at(w, w->layout == ROWS ? block + 2 : step + 64 + (b * 16 + r) * 2);
    for (size_t i = 0; i < 32; i++) {
        const int q = w->layout == ROWS ? row_nibble(block + 4, i) : step_nibble(step + 128, r, b, i);
        out[i] = d * (float)q + m;
    }
}

static void read_q5_0(float out[32], const matrix *w, size_t row, size_t c)
{
    const size_t r = row % 16, b = c / 32 % 2;
    const uint8_t *step = step_at(w, row, c), *block = step + b * 22;
    const float d = scale_at(w, w->layout == ROWS ? block : step + (b * 16 + r) * 2);
    for (size_t i = 0; i < 32; i++) {
        const int q = w->layout == ROWS ? row_nibble(block + 6, i) | row_bit(block + 2, i) << 4
                                        : step_nibble(step + 64, r, b, i) | step_bit(step + 64 + 512, r, b, i) << 4;
        out[i] = d * (float)(q - 16);
    }
}

static void read_q5_1(float out[32], const matrix *w, size_t row, size_t c)
{
    const size_t r = row % 16, b = c / 32 % 2;
    const uint8_t *step = step_at(w, row, c), *block = step + b * 24;
    const float d = scale_at(w, w->layout == ROWS ? block : step + (b * 16 + r) * 2);
    const float m = scale_at(w, w->layout == ROWS ? block + 2 : step + 64 + (b * 16 + r) * 2);
    for (size_t i = 0; i < 32; i++) {
        const int q = w->layout == ROWS ? row_nibble(block + 8, i) | row_bit(block + 4, i) << 4
                                        : step_nibble(step + 128, r, b, i) | step_bit(step + 128 + 512, r, b, i) << 4;
        out[i] = d * (float)q + m;
    }
}

/* d s and n t of block b of 8. GGUF packs the 16 numbers s and t, of 6 bits each, into 12 bytes: the first four of s,
 * then those of t, then the lower halves of the others, whose upper bits fill the bytes before. */
static void k_scales(float *scale, float *minimum, const matrix *w, const uint8_t *step, size_t r, size_t b)
{
    const uint8_t *d = w->layout == ROWS ? step : step + r * 2, *n = w->layout == ROWS ? step + 2 : step + 32 + r * 2;
    int s, t;
    if (w->layout == GROUPS) {
        s = step[64 + (b * 2) * 16 + r];
        t = step[64 + (b * 2 + 1) * 16 + r];
    } else if (b < 4) {
        s = step[4 + b] & 63;
        t = step[8 + b] & 63;
    } else {
        s = (step[8 + b] & 15) | step[b] >> 6 << 4;
        t = step[8 + b] >> 4 | step[4 + b] >> 6 << 4;
    }
    *scale = scale_at(w, d) * (float)s;
    *minimum = scale_at(w, n) * (float)t;
}

/* In ROWS a byte holds the nibbles of two blocks. */
static void read_q4_k(float out[32], const matrix *w, size_t row, size_t c)
{
    const size_t r = row % 16, b = c / 32 % 8;
    const uint8_t *step = step_at(w, row, c), *both = step + 16 + b / 2 * 32;
    float scale, minimum;
    k_scales(&scale, &minimum, w, step, r, b);
    for (size_t i = 0; i < 32; i++) {
        const int q = w->layout == ROWS ? both[i] >> b % 2 * 4 & 15 : step_nibble(step + 320, r, b, i);
        out[i] = scale * (float)q - minimum;
    }
}

/* And one the fifth bits of eight blocks. */
static void read_q5_k(float out[32], const matrix *w, size_t row, size_t c)
{
    const size_t r = row % 16, b = c / 32 % 8;
    const uint8_t *step = step_at(w, row, c), *all = step + 16, *both = step + 48 + b / 2 * 32;
    float scale, minimum;
    k_scales(&scale, &minimum, w, step, r, b);
    for (size_t i = 0; i < 32; i++) {
        const int q = w->layout == ROWS ? (both[i] >> b % 2 * 4 & 15) | (all[i] >> b & 1) << 4
                                        : step_nibble(step + 320, r, b, i) | step_bit(step + 320 + 2048, r, b, i) << 4;
        out[i] = scale * (float)q - minimum;
    }
}

/* Bits 5 and 6 of row r: a byte has those of every fourth of the 16 columns whose number is `at`. */
static int step_two_bits(const uint8_t *p, size_t r, size_t at, size_t i)
{
    return p[(at * 16 + r) * 4 + i % 4] >> i / 4 % 4 * 2 & 3;
}

/* In ROWS 128 columns have 64 bytes of nibbles, those of columns i and i + 64 together, and 32 of two more bits. */
static void read_q6_k(float out[32], const matrix *w, size_t row, size_t c)
{
    const size_t r = row % 16, b = c / 32 % 8, half = b / 4, k = b % 4;
    const uint8_t *step = step_at(w, row, c), *both = step + half * 64 + k % 2 * 32, *four = step + 128 + half * 32;
    const float d = scale_at(w, w->layout == ROWS ? step + 208 : step + r * 2);
    for (size_t i = 0; i < 32; i++) {
        const size_t at = b * 2 + i / 16; /* which 16 of the 256 */
        const int scale = (int8_t)(w->layout == ROWS ? step[192 + at] : step[64 + at * 16 + r]);
        const int q = w->layout == ROWS
                          ? (both[i] >> k / 2 * 4 & 15) | (four[i] >> k * 2 & 3) << 4
                          : step_nibble(step + 320, r, b, i) | step_two_bits(step + 320 + 2048, r, at, i) << 4;
        out[i] = d * (float)scale * (float)(q - 32);
    }
}

/* One float32 for the 256 numbers of a step. */
static float float_at(const uint8_t *p)
{
    float f;
    memcpy(&f, p, sizeof f);
    return f;
}

static void read_q2_row(float out[32], const matrix *w, size_t row, size_t c)
{
    const size_t r = row % 16, b = c / 32 % 8;
    const uint8_t *step = step_at(w, row, c);
    const float d = float_at(w->layout == ROWS ? step : step + r * 4);
    for (size_t i = 0; i < 32; i++) {
        const int q = w->layout == ROWS ? step[4 + (b * 32 + i) / 4] >> i % 4 * 2 & 3
                                        : step_two_bits(step + 64, r, b * 2 + i / 16, i);
        out[i] = d * (float)(q - 2);
    }
}

static void read_q4_row(float out[32], const matrix *w, size_t row, size_t c)
{
    const size_t r = row % 16, b = c / 32 % 8;
    const uint8_t *step = step_at(w, row, c);
    const float d = float_at(w->layout == ROWS ? step : step + r * 4);
    for (size_t i = 0; i < 32; i++) {
        const int q =
            w->layout == ROWS ? step[4 + (b * 32 + i) / 2] >> i % 2 * 4 & 15 : step_nibble(step + 64, r, b, i);
        out[i] = d * (float)(q - 8);
    }
}

static void read_q8_row(float out[32], const matrix *w, size_t row, size_t c)
{
    const size_t r = row % 16, b = c / 32 % 8;
    const uint8_t *step = step_at(w, row, c);
    const float d = float_at(w->layout == ROWS ? step : step + r * 4);
    for (size_t i = 0; i < 32; i++) {
        const uint8_t *q = w->layout == ROWS ? step + 4 + b * 32 + i : step + 64 + (b * 8 + i / 4) * 64 + r * 4 + i % 4;
        out[i] = d * (float)(int8_t)*q;
    }
}

/* out (width): one row, its padding too. */
static void read_row(float *out, const matrix *w, size_t row)
{
    typedef void reader(float *, const matrix *, size_t, size_t);
    static reader *const read[N_TYPES] = { read_f32,    read_bf16,   read_q8_0,  read_q4_0, read_q4_1,
                                           read_q5_0,   read_q5_1,   read_q4_k,  read_q5_k, read_q6_k,
                                           read_q2_row, read_q4_row, read_q8_row };
    for (size_t c = 0; c < w->width; c += 32) read[w->type](out + c, w, row, c);
}

/* ---- 3. Tensors by name ------------------------------------------------------------------------- */

enum { GLOBAL = -1 }; /* in place of a layer */

/* The tensor `name` of layer l, whose dimensions must be these. */
static matrix find(const model *m, int l, const char *name, uint32_t n_dims, const uint64_t dims[3])
{
    char prefix[16] = "", full[64];
    if (l != GLOBAL) snprintf(prefix, sizeof prefix, "l.%d.", l);
    snprintf(full, sizeof full, "%s%s", prefix, name);
    const entry *t = (const entry *)(const void *)(m->file + m->head.table_offset), *end = t + m->head.n_tensors;
    while (t < end && strncmp(t->name, full, sizeof t->name) != 0) t++;
    if (t == end) FAIL(1, "%s: there is no tensor %s", m->path, full);
    if (t->type >= N_TYPES || t->n_dims != n_dims || memcmp(t->dims, dims, sizeof t->dims) != 0)
        FAIL(1, "%s: tensor %s has a type or a shape that it should not have", m->path, full);

    const uint64_t n = n_dims == 3 ? dims[0] : 1, rows = n_dims == 1 ? 1 : dims[n_dims - 2], cols = dims[n_dims - 1];
    const uint64_t n_steps = (cols + steps[t->type].cols - 1) / steps[t->type].cols, bytes = t->size / n;
    const uint64_t needed =
        n_steps * (t->layout == ROWS ? rows * steps[t->type].row : (rows + 15) / 16 * steps[t->type].group);
    if (bytes < (n_dims == 1 ? 4 * cols : needed) || t->size > m->size || t->offset > m->size - t->size ||
        t->offset % 64 != 0 || (n > 1 && bytes % 64 != 0))
        FAIL(1, "%s: tensor %s is cut off", m->path, full);
    const size_t width = n_steps * steps[t->type].cols;
    return (matrix) { m->file + t->offset, t->type, t->layout, t->scale_type, rows, cols, width, bytes };
}

/* A vector of n float32, such as the weight of a norm. */
static const float *vector(const model *m, int l, const char *name, size_t n)
{
    return (const float *)(const void *)find(m, l, name, 1, (uint64_t[]) { n, 1, 1 }).data;
}

static matrix weight(const model *m, int l, const char *name, size_t rows, size_t cols)
{
    return find(m, l, name, 2, (uint64_t[]) { rows, cols, 1 });
}

static matrix expert(const model *m, int l, const char *name, size_t e, size_t rows, size_t cols)
{
    matrix w = find(m, l, name, 3, (uint64_t[]) { m->cfg.n_experts, rows, cols });
    w.data += e * w.bytes;
    return w;
}

/* ---- 4. Building blocks ------------------------------------------------------------------------- */

/* y[i] = x[i] * (mean(x^2) + eps)^-0.5 * w[i], times w and not 1 + w; w NULL: no weight. y may be x. All (n). */
static void rmsnorm(float *y, const float *x, const float *w, size_t n, float eps)
{
    float squares = 0;
    for (size_t i = 0; i < n; i++) squares += x[i] * x[i];
    const float scale = 1 / sqrtf(squares / (float)n + eps);
    for (size_t i = 0; i < n; i++) y[i] = x[i] * scale * (w ? w[i] : 1);
}

static float gelu(float x)
{
    const float root = 0.79788456f; /* sqrt(2 / pi) */
    return 0.5f * x * (1 + tanhf(root * (x + 0.044715f * x * x * x)));
}

/* x[i] = exp(x[i]) / sum(exp(x)), x (n). The largest is subtracted first, so that nothing overflows. */
static void softmax(float *x, size_t n)
{
    float largest = x[0], sum = 0;
    for (size_t i = 1; i < n; i++) largest = fmaxf(largest, x[i]);
    for (size_t i = 0; i < n; i++) sum += x[i] = expf(x[i] - largest);
    for (size_t i = 0; i < n; i++) x[i] /= sum;
}

/* The pairs (i, i + d/2) of a head x (d) turn by the angle pos * f[i], f (d/2), so that q . k depends on how far apart
 * two positions are. The file holds f: theta^(-2i/d) on sliding layers; on full layers the same with a larger theta;
 * there Gemma 4 has 0 behind the first quarter of the pairs, which never turn, and Gemma 3 from 4B on has an eighth of
 * f. */
static void rope(float *x, const float *f, size_t d, size_t pos)
{
    for (size_t i = 0; i < d / 2; i++) {
        const float angle = (float)pos * f[i], a = x[i], b = x[i + d / 2];
        x[i] = a * cosf(angle) - b * sinf(angle);
        x[i + d / 2] = b * cosf(angle) + a * sinf(angle);
    }
}

/* Row `row` of w times x (cols). Nearly all the time goes here. */
static float row_times(const matrix *w, size_t row, const float *x)
{
    float values[w->width], sum = 0;
    read_row(values, w, row);
    for (size_t i = 0; i < w->cols; i++) sum += values[i] * x[i];
    return sum;
}

/* y = w x, y (rows), x (cols). */
static void matmul(float *y, matrix w, const float *x)
{
    for (size_t r = 0; r < w.rows; r++) y[r] = row_times(&w, r, x);
}

/* y = down(gelu(gate(x)) * up(x)); x, y (hidden), down (hidden, n). gate_up holds 16 rows of the gate, the same rows of
 * up, the next 16 of the gate, and so on, so that the engine meets both at once. */
static void mlp(float *y, matrix gate_up, matrix down, const float *x)
{
    float h[down.cols];
    for (size_t i = 0; i < down.cols; i++) {
        const size_t row = i / 16 * 32 + i % 16;
        h[i] = gelu(row_times(&gate_up, row, x)) * row_times(&gate_up, row + 16, x);
    }
    matmul(y, down, h);
}
static size_t gate_up_rows(size_t n) { return 2 * ((n + 15) / 16 * 16); }

/* ---- 5. The decoder ------------------------------------------------------------------------------
 *
 * In: the id of the token at position pos; those before it have been here. Out: logits (n_vocab), a score for each id
 * that may come next.
 *
 * A token is a vector x of `hidden` numbers, the residual stream. Layer by layer something is added to it: what
 * attention reads from the tokens before it, and what an MLP makes of the sum. At the end, the more x points along an
 * embedding, the likelier is its token. Every branch reads x through a norm and passes a norm before it is added. */

static void forward(model *m, size_t token, size_t pos, float *logits)
{
    const config *c = &m->cfg;
    const size_t hidden = c->hidden, n_layers = c->n_layers, n_heads = c->n_heads, ple = c->ple_dim;
    const float eps = c->eps;
    float x[hidden], a[hidden], out[hidden]; /* the residual stream; what a branch reads; what it adds */

    /* Embedding: x = embed[token] * sqrt(hidden). The placeholder of a picture, sound or video (0: the model has none)
     * with no medium behind it reads as the pad token, in both tables. The soft tokens of a medium would take the place
     * of x, without the factor, and read the pad token in the second table. */
    if (token != 0 && (token == c->image_token || token == c->audio_token || token == c->video_token)) token = c->pad;
    const matrix embed = weight(m, GLOBAL, "embed", c->n_vocab, hidden);
    float embedding[embed.width];
    read_row(embedding, &embed, token);
    for (size_t i = 0; i < hidden; i++) x[i] = embedding[i] * c->embed_scale;

    /* Per-layer embeddings (E2B, E4B): every layer l has a second input p[l], (token part + context part) * 2^-0.5.
     *     token part    ple_embed[token] * sqrt(ple_dim)
     *     context part  rmsnorm(ple_proj(x) * hidden^-0.5), each layer's slice on its own, all with one weight */
    float p[n_layers * ple + 1]; /* (n_layers, ple_dim) */
    if (ple > 0) {
        const matrix table = weight(m, GLOBAL, "ple.embed", c->n_vocab, n_layers * ple);
        const float *norm = vector(m, GLOBAL, "ple.norm", ple);
        float row[table.width];
        read_row(row, &table, token);
        matmul(p, weight(m, GLOBAL, "ple.proj", n_layers * ple, hidden), x);
        for (size_t i = 0; i < n_layers * ple; i++) p[i] *= powf((float)hidden, -0.5f);
        for (size_t l = 0; l < n_layers; l++) rmsnorm(p + l * ple, p + l * ple, norm, ple, eps);
        for (size_t i = 0; i < n_layers * ple; i++) p[i] = (row[i] * sqrtf((float)ple) + p[i]) * powf(2, -0.5f);
    }

    for (int l = 0; l < (int)n_layers; l++) {
        const layer_config *layer = &m->layers[l];
        const int full = (layer->flags & FULL) != 0, owner = layer->kv_source == (uint32_t)l;
        const size_t d = layer->head_dim, q_dim = n_heads * d, kv_dim = layer->n_kv_heads * d;
        const float *f = vector(m, GLOBAL, full ? "rope.full" : "rope.sliding", d / 2);

        /* Attention: x = x + rmsnorm(o(attention(q(a), k(a), v(a)))), a = rmsnorm(x). Each head of q passes a norm, one
         * weight for all heads, and is then turned by its position. */
        float q[q_dim], heads[q_dim]; /* (n_heads, head_dim): queries; what each of them reads */
        rmsnorm(a, x, vector(m, l, "attn_norm", hidden), hidden, eps);
        matmul(q, weight(m, l, "q", q_dim, hidden), a);
        for (size_t h = 0; h < q_dim; h += d) {
            rmsnorm(q + h, q + h, vector(m, l, "q_norm", d), d, eps);
            rope(q + h, f, d, pos);
        }

        /* So does each head of k. A head of v passes a weightless norm (not in Gemma 3). Where V is K, on full layers
         * of 26B-A4B and 31B, v is k as it leaves the matrix. The last layers of E2B and E4B have neither k nor v. */
        if (owner) {
            float *k = m->keys[l] + pos * kv_dim, *v = m->values[l] + pos * kv_dim; /* (n_kv_heads, head_dim) */
            matmul(k, weight(m, l, "k", kv_dim, hidden), a);
            if (layer->flags & K_EQ_V)
                memcpy(v, k, kv_dim * sizeof *v);
            else
                matmul(v, weight(m, l, "v", kv_dim, hidden), a);
            for (size_t h = 0; h < kv_dim; h += d) {
                if (c->flags & V_NORM) rmsnorm(v + h, v + h, NULL, d, eps);
                rmsnorm(k + h, k + h, vector(m, l, "k_norm", d), d, eps);
                rope(k + h, f, d, pos);
            }
        }

        /* Layers without keys read those of the last layer of their type, sliding or full, that has some. A query head
         * weighs the values of the positions it sees by softmax(scale * q . k). Full layers see all positions up to
         * their own, sliding layers the last `window` of these. Query head h reads key/value head h / (n_heads /
         * n_kv_heads). The scale is 1 in Gemma 4, where the norms of q and k took its place. */
        const float *keys = m->keys[layer->kv_source], *values = m->values[layer->kv_source]; /* (n_pos, kv_dim) */
        const size_t first = full || pos < c->window ? 0 : pos + 1 - c->window;
        for (size_t h = 0; h < n_heads; h++) {
            const size_t kv = h / (n_heads / layer->n_kv_heads) * d; /* where its key/value head begins */
            float score[pos + 1], *head = heads + h * d;             /* used from `first` on; (head_dim) */
            for (size_t j = first; j <= pos; j++) {
                score[j] = 0;
                for (size_t i = 0; i < d; i++) score[j] += q[h * d + i] * keys[j * kv_dim + kv + i];
                score[j] *= c->attn_scale;
            }
            softmax(score + first, pos + 1 - first);
            for (size_t i = 0; i < d; i++) head[i] = 0;
            for (size_t j = first; j <= pos; j++)
                for (size_t i = 0; i < d; i++) head[i] += score[j] * values[j * kv_dim + kv + i];
        }
        matmul(out, weight(m, l, "o", hidden, q_dim), heads);
        rmsnorm(out, out, vector(m, l, "attn_post_norm", hidden), hidden, eps);
        for (size_t i = 0; i < hidden; i++) x[i] += out[i];

        /* MLP: x = x + rmsnorm(mlp(rmsnorm(x))). In E2B it is twice as wide on layers without keys of their own. */
        const size_t wide = layer->mlp_dim;
        rmsnorm(a, x, vector(m, l, "mlp_norm", hidden), hidden, eps);
        mlp(out, weight(m, l, "gate_up", gate_up_rows(wide), hidden), weight(m, l, "down", hidden, wide), a);

        /* Experts (26B-A4B): small MLPs beside that one, of which a token uses the n_experts_used with the largest r,
         * ties to the lower index. Router and experts read x, not a, each through a norm of its own.
         *     r   = softmax(router(rmsnorm(x) * router_scale * hidden^-0.5))
         *     out = rmsnorm(out) + rmsnorm(sum of r[e] / (sum of those r) * expert_scale[e] * mlp_e(rmsnorm(x))) */
        if (layer->flags & MOE) {
            const size_t n = c->n_experts, expert_dim = c->expert_dim;
            const float *expert_scale = vector(m, l, "expert_scale", n);
            float r[n], taken[n], total = 0, one[hidden], sum[hidden];
            rmsnorm(a, x, vector(m, l, "router_scale", hidden), hidden, eps); /* the weightless norm, times the scale */
            for (size_t i = 0; i < hidden; i++) a[i] *= powf((float)hidden, -0.5f);
            matmul(r, weight(m, l, "router", n, hidden), a);
            softmax(r, n);
            for (size_t e = 0; e < n; e++) {
                size_t better = 0;
                for (size_t i = 0; i < n; i++) better += r[i] > r[e] || (r[i] == r[e] && i < e);
                taken[e] = better < c->n_experts_used ? r[e] : 0;
                total += taken[e];
            }
            rmsnorm(a, x, vector(m, l, "moe_norm", hidden), hidden, eps);
            for (size_t i = 0; i < hidden; i++) sum[i] = 0;
            for (size_t e = 0; e < n; e++) {
                if (taken[e] == 0) continue;
                mlp(one, expert(m, l, "experts.gate_up", e, gate_up_rows(expert_dim), hidden),
                    expert(m, l, "experts.down", e, hidden, expert_dim), a);
                for (size_t i = 0; i < hidden; i++) sum[i] += taken[e] / total * expert_scale[e] * one[i];
            }
            rmsnorm(out, out, vector(m, l, "mlp_post_norm1", hidden), hidden, eps);
            rmsnorm(sum, sum, vector(m, l, "mlp_post_norm2", hidden), hidden, eps);
            for (size_t i = 0; i < hidden; i++) out[i] += sum[i];
        }
        rmsnorm(out, out, vector(m, l, "mlp_post_norm", hidden), hidden, eps);
        for (size_t i = 0; i < hidden; i++) x[i] += out[i];

        /* Per-layer input: x = x + rmsnorm(proj(gelu(gate(x)) * p[l])). The gate reads x without a norm. */
        if (ple > 0) {
            float g[ple];
            matmul(g, weight(m, l, "ple_gate", ple, hidden), x);
            for (size_t i = 0; i < ple; i++) g[i] = gelu(g[i]) * p[(size_t)l * ple + i];
            matmul(out, weight(m, l, "ple_proj", hidden, ple), g);
            rmsnorm(out, out, vector(m, l, "ple_norm", hidden), hidden, eps);
            for (size_t i = 0; i < hidden; i++) x[i] += out[i];
        }

        /* Behind everything else, one number for each layer (not in Gemma 3). */
        const float scalar = layer->flags & SCALAR ? *vector(m, l, "scalar", 1) : 1;
        for (size_t i = 0; i < hidden; i++) x[i] *= scalar;
    }

    /* Head: logits = 30 tanh(embed . rmsnorm(x) / 30), with a matrix of its own where it is not tied to the embedding,
     * and without the cap in Gemma 3. */
    rmsnorm(a, x, vector(m, GLOBAL, "norm", hidden), hidden, eps);
    matmul(logits, c->flags & TIED ? embed : weight(m, GLOBAL, "head", c->n_vocab, hidden), a);
    if (c->softcap > 0)
        for (size_t i = 0; i < c->n_vocab; i++) logits[i] = c->softcap * tanhf(logits[i] / c->softcap);
}

/* ---- 6. The command line -------------------------------------------------------------------------- */

static void *zeros(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (!p) FAIL(1, "out of memory");
    return p;
}

static void open_model(model *m, const char *path)
{
    m->path = path;
    const int fd = open(path, O_RDONLY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) FAIL(1, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) FAIL(1, "%s: not a file", path);
    if ((size_t)st.st_size < sizeof m->head) FAIL(1, "%s: too short for a model file", path);
    m->size = (size_t)st.st_size;
    m->file = mmap(NULL, m->size, PROT_READ, MAP_SHARED, fd, 0);
    if (m->file == MAP_FAILED) FAIL(1, "%s: %s", path, strerror(errno));
    close(fd);

    memcpy(&m->head, m->file, sizeof m->head);
    const header *h = &m->head;
    if (memcmp(h->magic, "GEMMA4.C", 8) != 0) FAIL(1, "%s: not a model file (wrong magic)", path);
    if (h->endian != 0x01020304 || h->version != 1) FAIL(1, "%s: not a little-endian file of version 1", path);
    if (h->file_size != m->size)
        FAIL(1, "%s: %zu bytes, but the header says %llu", path, m->size, (unsigned long long)h->file_size);
    if (h->table_offset > m->size || h->n_tensors > (m->size - h->table_offset) / sizeof(entry) ||
        h->config_offset > m->size || h->config_size > m->size - h->config_offset || h->config_size < 8 ||
        h->table_offset % 64 != 0)
        FAIL(1, "%s: the header points outside the file", path);

    config *c = &m->cfg;
    const uint8_t *bytes = m->file + h->config_offset;
    memcpy(c, bytes, 8); /* the two sizes; of what follows, fields that the file lacks stay 0 */
    const size_t fixed = c->size, each = c->layer_size;
    if (fixed <= h->config_size) memcpy(c, bytes, fixed < sizeof *c ? fixed : sizeof *c);
    if (c->n_layers == 0 || each < sizeof(layer_config) || c->n_layers > (h->config_size - fixed) / each)
        FAIL(1, "%s: there is no text decoder in it", path);
    if (c->n_layers > 256 || c->hidden - 1 >= 32768 || c->n_heads > 256 || c->ple_dim > 1024 || c->n_experts > 1024 ||
        c->expert_dim > 32768 || c->pad >= c->n_vocab)
        FAIL(1, "%s: its sizes are not those of a Gemma", path);
    m->layers = zeros(c->n_layers, sizeof *m->layers);
    for (size_t l = 0; l < c->n_layers; l++) {
        memcpy(&m->layers[l], bytes + fixed + l * each, sizeof *m->layers);
        const layer_config *layer = &m->layers[l], *source = m->layers + (layer->kv_source < l ? layer->kv_source : l);
        if (layer->mlp_dim > 131072 || layer->head_dim - 1 >= 1024 || layer->n_kv_heads - 1 >= c->n_heads ||
            c->n_heads % layer->n_kv_heads != 0)
            FAIL(1, "%s: the sizes of layer %zu are not those of a Gemma", path, l);
        if (layer->kv_source > l || layer->kv_source != source->kv_source ||
            source->n_kv_heads * source->head_dim != layer->n_kv_heads * layer->head_dim)
            FAIL(1, "%s: layer %zu has no keys to read", path, l);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 5) FAIL(2, "usage: simple MODEL.g4 2,651,9 [N [FILE]]");
    const char *n_text = argc > 3 ? argv[3] : "8", *path = argc > 4 ? argv[4] : NULL;
    static model m;       /* the system takes back its memory, and that of the two below, at the end */
    static size_t *ids;   /* (n_ids) */
    static float *logits; /* (n_vocab) */
    open_model(&m, argv[1]);
    const config *c = &m.cfg;

    char *rest = argv[2];
    size_t n_ids = 1;
    for (const char *p = rest; *p; p++) n_ids += *p == ',';
    ids = zeros(n_ids, sizeof *ids);
    for (size_t i = 0; i < n_ids; i++) {
        const char *digits = i == 0 ? rest : rest + 1; /* behind the comma */
        const long id = strtol(digits, &rest, 10);
        if (rest == digits || (*rest != 0 && *rest != ',') || id < 0 || id >= (long)c->n_vocab)
            FAIL(2, "%s: expected ids from 0 to %u with commas between them", argv[2], c->n_vocab - 1);
        ids[i] = (size_t)id;
    }
    const long n_new = strtol(n_text, &rest, 10);
    if (rest == n_text || *rest != 0 || n_new < 0 || n_new > (long)c->max_ctx - (long)n_ids)
        FAIL(2, "%zu ids and %s new ones: expected a number, and at most %u together", n_ids, n_text, c->max_ctx);
    FILE *file = path ? fopen(path, "wb") : NULL;
    if (path && !file) FAIL(1, "%s: %s", path, strerror(errno));

    m.keys = zeros(c->n_layers, sizeof *m.keys);
    m.values = zeros(c->n_layers, sizeof *m.values);
    for (size_t l = 0; l < c->n_layers; l++) { /* room for all positions; on sliding layers a ring would do */
        const size_t n = (n_ids + (size_t)n_new) * m.layers[l].n_kv_heads * m.layers[l].head_dim;
        m.keys[l] = m.layers[l].kv_source == l ? zeros(n, sizeof(float)) : NULL;
        m.values[l] = m.layers[l].kv_source == l ? zeros(n, sizeof(float)) : NULL;
    }

    logits = zeros(c->n_vocab, sizeof *logits);
    for (size_t pos = 0; pos < n_ids; pos++) {
        forward(&m, ids[pos], pos, logits);
        if (file && fwrite(logits, sizeof *logits, c->n_vocab, file) != c->n_vocab) FAIL(1, "%s: cannot write", path);
    }
    if (file && fclose(file) != 0) FAIL(1, "%s: cannot write", path);
    for (size_t i = 0; i < (size_t)n_new; i++) {
        size_t best = 0; /* ties to the lower id */
        for (size_t id = 1; id < c->n_vocab; id++)
            if (logits[id] > logits[best]) best = id;
        printf(i > 0 ? ",%zu" : "%zu", best);
        fflush(stdout);
        if (i + 1 < (size_t)n_new) forward(&m, best, n_ids + i, logits);
    }
    printf("\n");
    return 0;
}
