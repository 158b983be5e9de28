/* parts.h - the floor of the parts that know nothing of each other: the model file (file.c), threads (threads.c),
 * weight types and kernels (types.c, kernels.c), the tokenizer (tokenizer.c), sampling (sample.c). Media stand beside
 * them, in a folder and with a header of their own. */
#ifndef GEMMA4_PARTS_H
#define GEMMA4_PARTS_H

#include "base.h"

/* ---- Threads --------------------------------------------------------------------------------- */

/* A pool of n_threads - 1 workers; the caller is the last. g4_parallel_for hands out pieces 0..n_pieces-1 as threads
 * become free and returns when all are done. What a piece computes must not depend on who computes it. One
 * g4_parallel_for at a time per pool; the engine's lock sees to that. */
typedef struct g4_pool g4_pool;
typedef struct {
    void *job;  /* what the caller of g4_parallel_for passed */
    int worker; /* 0..n-1: selects scratch memory, and nothing else */
} g4_task;
typedef void (*g4_piece_fn)(const g4_task *task, int piece);
g4_pool *g4_pool_open(const g4_allocator *a, int n_threads); /* NULL when out of memory or threads */
void g4_pool_close(g4_pool *p);
int g4_pool_size(const g4_pool *p);
int g4_pool_is_ours(const g4_pool *p); /* no: this is a child made by fork(), where the threads are not */
/* What the jobs from now on are done for: once it is halted, no piece is begun any more, and what the jobs make is not
 * to be used. NULL: nothing ends them. */
void g4_pool_halt(g4_pool *p, g4_halt *halt);
int g4_pool_halted(const g4_pool *p); /* what the jobs make is not to be used */
/* Between two jobs: what their call does meanwhile, which may use the pool too. */
void g4_pool_rest(const g4_pool *p);
#define G4_MAX_THREADS 256
/* Physical cores this process may use: distinct first siblings among the CPUs of its affinity mask, at most the
 * control group's quota. */
int g4_default_threads(void);
/* First line of a small text file; 0 when there is none. */
int g4_read_line(const char *path, char *out, int cap);
void g4_parallel_for(g4_pool *p, int n_pieces, g4_piece_fn fn, void *job);

/* ---- The model file ---------------------------------------------------------------------------
 *
 * Little-endian throughout. Offsets count from the start of the file.
 *
 *   header      128 bytes: g4_file_header
 *   config      at config_offset: g4_config, then n_layers records of g4_layer_config, then nothing.
 *               config_size = g4_config.size + n_layers * g4_config.layer_size; a later version may append fields
 *               to both structs, a reader takes the prefix it knows and reads missing fields as 0.
 *   tokenizer   at tokenizer_offset, 64-byte aligned: one blob, described in tokenizer.c
 *   tensors     at table_offset: n_tensors records of g4_tensor_entry (128 bytes each)
 *   data        from data_offset: the tensors in table order, each 64-byte aligned, big tables (16 MiB and more)
 *               and every expert on a 4096-byte page; gaps are zero. file_size is the end of the last tensor.
 *
 * checksum: g4_checksum over bytes [48, data_offset) (everything after the checksum field itself: sizes,
 * configuration, tokenizer and table), so an edit there is noticed before anything is believed. Tensor data is not
 * read at open.
 *
 * Layouts. `cols` is padded to a multiple of 64 and, in groups16, `rows` to 16, with zeros; the padded values and
 * scales are zeros. What a row and a step of 64 columns hold is told with the types below.
 *
 *   G4_LAYOUT_PLAIN    f32, C order, no padding (vectors, small tables)
 *   G4_LAYOUT_ROWS     looked up by row, never multiplied: one row after the other
 *   G4_LAYOUT_GROUPS16 multiplied: [rows/16] groups of 16 output rows, each one step after the other. With three
 *                      dimensions (experts, rows, cols): one such matrix after the other, each padded to 4096 bytes.
 *   gate_up            rows = 2 * pad16(mlp): group 2i is rows 16i.. of the gate, group 2i + 1 the same rows of the
 *                      up projection.
 */
#define G4_FILE_MAGIC "GEMMA4.C" /* 8 bytes, no terminator */
#define G4_FILE_VERSION 1u
#define G4_FILE_ENDIAN 0x01020304u

typedef struct {
    char magic[8];
    uint32_t version;
    uint32_t endian; /* G4_FILE_ENDIAN as the writer stores it */
    uint64_t file_size;
    uint64_t reserved0[2];
    uint64_t checksum; /* offset 40: over [48, data_offset) */
    uint64_t config_offset, config_size;
    uint64_t tokenizer_offset, tokenizer_size;
    uint64_t table_offset, n_tensors;
    uint64_t data_offset;
    uint64_t reserved1[3];
} g4_file_header; /* 128 bytes */

/* Sum of 64-bit words in four lanes, each lane h = (h ^ word) * 0x9E3779B97F4A7C15 rotated left by 29; starts 1, 2,
 * 3, 4; the tail is padded with zeros to 32 bytes; result = fold of the lanes by the same step, then xor the byte
 * count. */
uint64_t g4_checksum(const void *data, size_t n);
uint64_t g4_checksum_step(uint64_t h, uint64_t word); /* one step of one lane */

typedef enum { G4_LAYOUT_PLAIN = 0, G4_LAYOUT_ROWS = 1, G4_LAYOUT_GROUPS16 = 2 } g4_layout;

typedef struct {
    char name[64]; /* NUL-padded */
    uint32_t type, layout, scale_type, n_dims;
    uint64_t dims[3]; /* unpadded; (n), (rows, cols) or (experts, rows, cols); unused are 1. gate_up: padded rows */
    uint64_t offset, size; /* of the data, in bytes */
    uint64_t reserved;
} g4_tensor_entry; /* 128 bytes */

/* Tensor names. P = plain f32, G = groups16, R = rows; (rows, cols). Norm weights are the factor itself (never 1 + w).
 *   embed (n_vocab, hidden) G when tied, R when untied      head (n_vocab, hidden) G, untied only
 *   norm (hidden) P
 *   rope.sliding, rope.full (head_dim / 2) P: inverse frequencies, zero for unrotated pairs (i, i + head_dim / 2)
 *   ple.embed (n_vocab, n_layers * ple_dim) R    ple.proj (n_layers * ple_dim, hidden) G    ple.norm (ple_dim) P
 *   l.N.attn_norm l.N.attn_post_norm l.N.mlp_norm l.N.mlp_post_norm (hidden) P    l.N.scalar (1) P
 *   l.N.q (n_heads * head_dim, hidden) G   l.N.o (hidden, n_heads * head_dim) G   l.N.q_norm (head_dim) P
 *   l.N.k l.N.v (n_kv_heads * head_dim, hidden) G   l.N.k_norm (head_dim) P   owners only; no v with G4_LAYER_K_EQ_V
 *   l.N.gate_up (2 * pad16(mlp_dim), hidden) G   l.N.down (hidden, mlp_dim) G
 *   l.N.ple_gate (ple_dim, hidden) G   l.N.ple_proj (hidden, ple_dim) G   l.N.ple_norm (hidden) P
 *   l.N.act (9, 2) P: of q k v o gate up down ple_gate ple_proj the scales of their inputs and outputs, 0: none, as the
 *   checkpoint rounds them (static activations); act (2, 2) P: of the head and ple.proj. In all layers or in none
 *   l.N.router (n_experts, hidden) G f32   l.N.router_scale (hidden) P   l.N.expert_scale (n_experts) P
 *   l.N.moe_norm (hidden) P: pre_feedforward_layernorm_2
 *   l.N.mlp_post_norm1, l.N.mlp_post_norm2 (hidden) P: post_feedforward_layernorm_1, _2
 *   l.N.experts.gate_up (n_experts, 2 * pad16(expert_dim), hidden) G
 *   l.N.experts.down (n_experts, hidden, expert_dim) G
 * Vision: v.patch (hidden, 3 * patch^2) G   v.pos (2 * n_pos, hidden) R f32 or bf16: x rows, then y rows
 *   v.proj (text hidden, hidden) G   v.std_bias v.std_scale (hidden) P, with G4_VISION_STANDARDIZE
 *   v.N.attn_norm .attn_post_norm .mlp_norm .mlp_post_norm (hidden) P   .q_norm .k_norm (head_dim) P
 *   v.N.q .k .v .o .gate .up .down G
 *   v.N.bounds (7, 4) P: input min, max, output min, max of those seven (+-FLT_MAX: none)
 *   v.N.act (7, 2) P: static scales of those seven, as l.N.act   v.act (2, 2) P: of v.patch and v.proj
 * Audio: a.conv0 (9, conv0) P: taps (time, frequency) by channel   a.conv0_norm (conv0) P
 *   a.conv1 (conv1, 9 * conv0) G: taps (time, frequency), input channel fastest   a.conv1_norm (conv1) P
 *   a.in (hidden, 32 * conv1) G   a.out (out, hidden) G   a.out_bias (out) P   a.proj (text hidden, out) G
 *   a.N.ff1_norm .ff1_post_norm .attn_norm .attn_post_norm .conv_norm .conv_mid_norm .ff2_norm .ff2_post_norm .norm
 *   (hidden) P   .ff1_up .ff2_up (4 * hidden, hidden) G   .ff1_down .ff2_down (hidden, 4 * hidden) G
 *   .q .k .v .post .conv_out (hidden, hidden) G   .conv_in (2 * hidden, hidden) G
 *   .conv (kernel, hidden) P: oldest tap first
 *   .q_scale (head_dim) P: head_dim^-0.5 / ln 2 * softplus(per_dim_scale)
 *   .rel_k (context, hidden) P: relative_k_proj of the sin|cos of distance 0, 1, .., constant and so computed by the
 *   exporter   .bounds (10, 4) P: as above, of ff1_up ff1_down q k v post conv_in conv_out ff2_up ff2_down
 *   a.N.act (10, 2) P: static scales of those ten   a.act (2, 2) P: of a.in and a.proj */

#define G4_CONFIG_TIED 1u        /* the head is the embedding */
#define G4_CONFIG_V_NORM 2u      /* values pass a weightless RMSNorm */
#define G4_CONFIG_IMAGE_BIDIR 4u /* image blocks see themselves both ways on sliding layers */
#define G4_CONFIG_CHAT 8u        /* instruction tuned: has a chat template */

#define G4_VISION_STANDARDIZE 1u /* v.std_bias and v.std_scale exist */
#define G4_VISION_CLIPPED 2u     /* some bounds may be finite; written by export.py, not read here */
#define G4_FRAME_TOKENS 70       /* budget of a video frame, if none is given */

#define G4_LAYER_FULL 1u   /* else sliding */
#define G4_LAYER_K_EQ_V 2u /* V is the raw k projection */
#define G4_LAYER_MOE 4u
#define G4_LAYER_SCALAR 8u /* the stream is multiplied by l.N.scalar */

typedef struct {
    uint32_t flags; /* G4_LAYER_* */
    uint32_t n_kv_heads, head_dim;
    uint32_t mlp_dim;   /* dense MLP width of this layer */
    uint32_t kv_source; /* the layer whose keys and values it reads; its own index when it owns them */
    uint32_t reserved[3];
} g4_layer_config; /* 32 bytes */

typedef enum {
    G4_TEMPLATE_NONE = 0,
    G4_TEMPLATE_31B_2026_07 = 1,
    G4_TEMPLATE_E2B_2026_07 = 2,
    G4_TEMPLATE_31B_2026_04 = 3
} g4_template;

typedef struct {               /* every field is 4 bytes, so it is packed as it stands */
    uint32_t size, layer_size; /* bytes of this struct and of one g4_layer_config in this file */
    char name[64];             /* shown by info, NUL-padded */
    uint32_t flags;            /* G4_CONFIG_* */
    uint32_t n_layers, hidden, n_vocab, n_heads, window, max_ctx;
    uint32_t ple_dim; /* 0: no per-layer embeddings */
    uint32_t n_experts, n_experts_used, expert_dim;
    float eps, attn_scale, softcap, embed_scale; /* softcap 0: none */
    uint32_t chat_template;                      /* g4_template */
    uint32_t bos, eos, pad;                      /* token ids */
    uint32_t unk;                                /* for other readers: this library writes bytes instead */
    uint32_t n_stop, stop[7];                    /* ids that end a reply */
    float temperature, top_p;                    /* recommended sampling; temperature 0: greedy */
    uint32_t top_k;
    /* Ids, 0 when the model has none. Those that begin and end are for other readers: this library takes them from the
     * tokenizer. */
    uint32_t image_begin, image_token, image_end;
    uint32_t audio_begin, audio_token, audio_end, video_token;
    /* vision tower; v_layers 0: none */
    uint32_t v_layers, v_hidden, v_heads, v_head_dim, v_mlp, v_patch, v_pool, v_n_pos, v_default_tokens;
    uint32_t v_flags; /* G4_VISION_* */
    float v_eps, v_rope_theta;
    /* audio tower; a_layers 0: none */
    uint32_t a_layers, a_hidden, a_heads, a_conv0, a_conv1, a_kernel;
    uint32_t a_context; /* keys that a query sees, its own included (12) */
    uint32_t a_out;
    float a_eps, a_residual_weight, a_logit_cap, a_clip;
    uint32_t a_flags; /* reserved */
    uint32_t reserved[16];
    /* What export.py read: the last name of its folder or file or the hub's id, and the SHA-256 in hexadecimal of that
     * one file or, of several, of what sha256sum prints of them in the order of their names. NUL-padded; empty in files
     * from before 0.2.0. */
    char source[96], source_sha256[68];
} g4_config;

/* ---- Weight types ---------------------------------------------------------------------------------
 *
 * Columns run in steps, and a step of a quantised type in blocks of 32. Two types of the engine's own have one scale a
 * block, value = scale * q, scale f16 or bf16 by the tensor's scale_type, q -128..127 or -8..7:
 *
 *         a row of the layout rows                           a group of 16 rows in groups16
 *   f32   cols values                                        [cols][16]
 *   bf16  cols values                                        [cols/2][16][2]
 *   q8_0  cols/32 scales, then cols int8                     [cols/64]{ scale[2][16]; int8 w[16 chunks][16 rows][4] }
 *   q4_0  cols/32 scales, then cols/2 bytes; byte i of a     [cols/64]{ scale[2][16]; uint8 w[8 runs][16 rows][4] }
 *         block holds element i in its low and element
 *         i + 16 in its high nibble, stored + 8 (as GGUF)
 *
 * Chunk c holds columns 4c..4c+3 of the step: block 0 is chunks 0-7, block 1 chunks 8-15. In q4_0, run r holds chunk 2r
 * in its low and chunk 2r + 1 in its high nibbles, stored + 8.
 *
 * The others are GGUF's. Rows hold its blocks, byte for byte; groups16 the same numbers in the order of q4_0: nibbles w
 * and, where q has more bits, planes of what is above a nibble. All scales are f16; s and m are bytes.
 *
 *         value             a step of groups16
 *   q4_1  d q + m           [cols/64]{ d[2][16]; m[2][16]; w[8 runs][16][4] }                              q 0..15
 *   q5_0  d (q - 16)        [cols/64]{ d[2][16]; w[8 runs][16][4]; high[2 blocks][16][4] }                 q 0..31
 *   q5_1  d q + m           [cols/64]{ d[2][16]; m[2][16]; w[8 runs][16][4]; high[2][16][4] }              q 0..31
 *   q4_k  d s q - dmin m    [cols/256]{ d[16]; dmin[16]; [8 blocks]{ s[16]; m[16] }; w[32 runs][16][4] }   q 0..15
 *   q5_k  d s q - dmin m    [cols/256]{ as q4_k; high[8 blocks][16][4] }                                   q 0..31
 *   q6_k  d s (q - 32)      [cols/256]{ d[16]; 32 bytes of zeros; int8 s[16 halves of blocks][16];
 *                                       w[32 runs][16][4]; high[16 halves][16][4] }                        q 0..63
 *
 * Three more are of checkpoints trained for phones: integers of 2, 4 and 8 bits and one float32 a row, repeated in each
 * step. Rows: { float d; the 256 numbers, the lowest bits of a byte first }. The tensor's scale_type is none.
 *
 *   q2_row  d (q - 2)       [cols/256]{ float d[16]; w[16 halves of blocks][16][4] }                       q 0..3
 *   q4_row  d (q - 8)       [cols/256]{ float d[16]; w[32 runs][16][4] }                                   q 0..15
 *   q8_row  d q             [cols/256]{ float d[16]; int8 w[64 chunks][16 rows][4] }
 *
 * q2_row has its numbers where q6_k has its two upper bits.
 *
 * Bit c of high[block][row][i] belongs to column 4c + i of its block; bits 2c and 2c + 1 of high[half][row][i] to
 * column 4c + i of 16.
 *
 * A new type is an enumerator and its block above, a row of the table in types.c, a scalar product in kernels.c, vector
 * products in kernels_*.h, and its writer in export.py. No other file names a type. */

/* As files number them. */
typedef enum {
    G4_TYPE_F32,
    G4_TYPE_BF16,
    G4_TYPE_Q8_0,
    G4_TYPE_Q4_0,
    G4_TYPE_Q4_1,
    G4_TYPE_Q5_0,
    G4_TYPE_Q5_1,
    G4_TYPE_Q4_K,
    G4_TYPE_Q5_K,
    G4_TYPE_Q6_K,
    G4_TYPE_Q2_ROW,
    G4_TYPE_Q4_ROW,
    G4_TYPE_Q8_ROW,
    G4_N_TYPES
} g4_type;
typedef enum { G4_SCALE_NONE, G4_SCALE_F16, G4_SCALE_BF16 } g4_scale_type;

/* Bytes in groups16 of what q8_0 is made of: the scales of a block and of a step, behind which the weights begin; the
 * weights of a block; a step. A step of q8_row has as many bytes of scales, and eight blocks. */
#define G4_BLOCK_SCALES 32
#define G4_STEP_SCALES (2 * G4_BLOCK_SCALES)
#define G4_Q8_BLOCK 512
#define G4_Q8_STEP (G4_STEP_SCALES + 2 * G4_Q8_BLOCK)
#define G4_Q8_ROW_STEP (G4_STEP_SCALES + 8 * G4_Q8_BLOCK)

/* Types of bytes: q8_0, and q8_row, whose tensors have no scale type. Blocks of a step, and where block b of a group
 * has its scales and its weights. */
static inline int g4_bytes_blocks(g4_scale_type scales) { return scales == G4_SCALE_NONE ? 8 : 2; }
static inline int g4_bytes_step(g4_scale_type scales) { return scales == G4_SCALE_NONE ? G4_Q8_ROW_STEP : G4_Q8_STEP; }
static inline const uint8_t *g4_bytes_scales(const uint8_t *group, size_t b, g4_scale_type scales)
{
    if (scales == G4_SCALE_NONE) return group + b / 8 * G4_Q8_ROW_STEP;
    return group + b / 2 * G4_Q8_STEP + b % 2 * G4_BLOCK_SCALES;
}
static inline const uint8_t *g4_bytes_weights(const uint8_t *group, size_t b, g4_scale_type scales)
{
    if (scales == G4_SCALE_NONE) return group + b / 8 * G4_Q8_ROW_STEP + G4_STEP_SCALES + b % 8 * G4_Q8_BLOCK;
    return group + b / 2 * G4_Q8_STEP + G4_STEP_SCALES + b % 2 * G4_Q8_BLOCK;
}

/* Columns of the longest step: rows of activations are padded to it. */
#define G4_MAX_STEP_COLS 256

/* How a block of a type of nibbles is put together in groups16. Kernels take the type as a constant, and these with it.
 * What a block multiplies is q - middle, so that sums of products stay small; where a type has minima, what that takes
 * off is put back with them:  s q - m = s (q - middle) + (middle s - m). */
typedef enum { G4_SCALES_ONE, G4_SCALES_MIN, G4_SCALES_K_MIN, G4_SCALES_K_HALVES, G4_SCALES_STEP } g4_block_kind;
typedef struct {
    g4_block_kind kind; /* d; d and m; d s and dmin m; d and an integer s for each half; a float32 for all of a step */
    int blocks;         /* of a step */
    int low_bits;       /* of a weight: 4, its nibble, or 0 */
    int high_bits;      /* of a weight, above its nibble */
    int middle;         /* half of the range of q */
    int weights;        /* bytes of a step before its nibbles; a block has 256 of them */
    int high;           /* bytes before its planes; a block has 64 * high_bits of them */
    int bytes;          /* of a step */
} g4_nibbles;
static inline int g4_has_mins(const g4_nibbles *shape)
{
    return shape->kind == G4_SCALES_MIN || shape->kind == G4_SCALES_K_MIN;
}
/* How many bits of a weight do not fit a nibble: twice as many products of a nibble may be summed in 16 bits. */
static inline int g4_wide_bits(const g4_nibbles *shape) { return shape->low_bits ? shape->high_bits : 0; }
#define G4_NIBBLE_BLOCK 256
#define G4_PLANE 64 /* bytes of a bit of a block, or of two bits of half a block */
static const g4_nibbles g4_nibbles_of[G4_N_TYPES] = {
    [G4_TYPE_Q4_0] = { G4_SCALES_ONE, 2, 4, 0, 8, 64, 576, 576 },
    [G4_TYPE_Q4_1] = { G4_SCALES_MIN, 2, 4, 0, 8, 128, 640, 640 },
    [G4_TYPE_Q5_0] = { G4_SCALES_ONE, 2, 4, 1, 16, 64, 576, 704 },
    [G4_TYPE_Q5_1] = { G4_SCALES_MIN, 2, 4, 1, 16, 128, 640, 768 },
    [G4_TYPE_Q4_K] = { G4_SCALES_K_MIN, 8, 4, 0, 8, 320, 2368, 2368 },
    [G4_TYPE_Q5_K] = { G4_SCALES_K_MIN, 8, 4, 1, 16, 320, 2368, 2880 },
    [G4_TYPE_Q6_K] = { G4_SCALES_K_HALVES, 8, 4, 2, 32, 320, 2368, 3392 },
    [G4_TYPE_Q2_ROW] = { G4_SCALES_STEP, 8, 0, 2, 2, 64, 64, 1088 },
    [G4_TYPE_Q4_ROW] = { G4_SCALES_STEP, 8, 4, 0, 8, 64, 2112, 2112 },
};

typedef struct {         /* multiplied: layout groups16 */
    const uint8_t *data; /* in the mapped file; NULL: absent */
    g4_type type;
    g4_scale_type scale_type;
    int rows, cols;     /* as in the checkpoint */
    int groups, steps;  /* pad16(rows) / 16, padded columns / columns of a step */
    size_t group_bytes; /* from one group of 16 rows to the next */
    const float *act;   /* (2): static scales of its inputs and its outputs, 0: none; where gate and up stand in turns
                           (4), those of both. NULL: activations are rounded as products need it */
} g4_matrix;

typedef struct { /* matrices of one shape, each so many bytes behind the one before it */
    g4_matrix first;
    size_t bytes;
} g4_stack;

typedef struct { /* looked up by row: layout rows */
    const uint8_t *data;
    g4_type type;
    g4_scale_type scale_type;
    int rows, cols;
    size_t row_bytes;
} g4_table;

/* What the products of a type read of their inputs. Int16 is what a table of kernels may have beside a type's own
 * products: product16 below. */
typedef enum { G4_READS_FLOAT, G4_READS_INT8, G4_READS_INT16 } g4_reads;

typedef struct {
    const char *name;     /* as listings and export.py say it */
    uint32_t step_cols;   /* columns are padded to a multiple of it */
    uint32_t step_bytes;  /* in groups16, of 16 rows: their weights, and their scales and what else a block has */
    uint32_t row_bytes;   /* of a step in a row of the layout rows */
    uint32_t scale_types; /* a bit for each g4_scale_type that its tensors may name */
    int is_float32;       /* then plain arrays are of it, and towers compute in float32 */
    g4_reads reads;
    void (*table_row)(float *out, const g4_table *t, int row, int col, int n);
    void (*matrix_row)(float *out, const g4_matrix *m, int row);
} g4_type_info;
const g4_type_info *g4_type_get(uint32_t type);        /* NULL: no such type */
const char *g4_type_name(uint32_t type);               /* "?": no such type */
uint64_t g4_row_bytes(uint32_t type, uint64_t cols);   /* of a row of the layout rows */
uint64_t g4_group_bytes(uint32_t type, uint64_t cols); /* of 16 rows in groups16 */
/* The matrix of an entry's type whose groups begin at data: all of a tensor, or one of its experts. */
g4_matrix g4_matrix_at(const uint8_t *data, const g4_tensor_entry *t, uint64_t rows, uint64_t cols);
/* Values [col, col + n) of one row of a table as float32. */
void g4_table_row(float *out, const g4_table *t, int row, int col, int n);
/* One row of a matrix as float32: a tied embedding is looked up inside its group of 16. */
void g4_matrix_row(float *out, const g4_matrix *m, int row);

/* ---- Activations and the kernel table ------------------------------------------------------------- */

/* Activations of n tokens. Products of int8 read q, d, sum, those of float32 read x. */
typedef struct {
    float *x;        /* (n, x_stride): values behind cols are zero; NULL when only int8 is read */
    size_t x_stride; /* floats from token to token */
    int8_t *q;       /* (n, 64 * steps): -127..127, x = d * q */
    float *d;        /* (n, 2 * steps): one scale per 32 inputs */
    int16_t *sum;    /* (n, 4 * steps): sum of q over each 16 inputs, for weights that are stored with an offset */
    int steps;       /* of 64 inputs, at least those that a matrix reads */
} g4_acts;
static inline int g4_block_sum(const int16_t *sum, size_t block) { return sum[2 * block] + sum[2 * block + 1]; }

/* y[t * y_stride + r] = sum_c w[r][c] * x[t][c] for tokens [t0, t1) and rows [16 g0, 16 g1). y points at token t0,
 * row 16 * g0, and has room for rows padded to 16. A row adds its blocks in order: acc = fma-or-mul-add(scale_w *
 * scale_x, integer sum, acc), and where weights are shifted acc = fma-or-mul-add(shift, scale_x * sum of q, acc): the
 * same operations whatever the tile, so a token's value does not depend on its neighbours. */
typedef void (*g4_gemm_fn)(float *y, size_t y_stride, const g4_matrix *w, const g4_acts *x, int t0, int t1, int g0,
                           int g1);

/* Keys and values of one KV head at 64 consecutive positions (one page). */
typedef enum { G4_KV_F16 = 0, G4_KV_F32 = 1, G4_KV_Q8_0 = 2 } g4_kv_type; /* as saved sessions number them */
static inline size_t g4_kv_size(g4_kv_type type) { return type == G4_KV_F32 ? 4 : type == G4_KV_F16 ? 2 : 1; }
#define G4_PAGE 64
#define G4_MAX_HEAD_DIM 1024
typedef struct {
    const void *k;                  /* (head_dim, 64): transposed, so that 64 positions are the lanes */
    const void *v;                  /* (64, head_dim) */
    const float *k_scale, *v_scale; /* (64) for q8_0, else NULL */
    const void *next;               /* keys of the tile that will be read after this one, or NULL: a hint */
} g4_kv_tile;

/* One attention tile for n_q queries that read the same KV head: scores, online softmax, weighted sum.
 *   s[j] = q . k[j] (summed over dims in order), for j in [lo[i], hi[i]) of this tile; an empty range leaves query
 *   i alone
 *   m' = max(m, max s);  o = o * exp(m - m') + sum_j exp(s[j] - m') v[j] (j in order);  l likewise
 * q (n_q, head_dim) is already scaled. State: m (n_q), l (n_q), o (n_q, head_dim); start m = -INFINITY, l = 0, o = 0.
 * What a query gets must not depend on which other queries stand beside it. */
typedef void (*g4_attend_fn)(const g4_kv_tile *tile, g4_kv_type type, int head_dim, const float *q, int n_q,
                             const int *lo, const int *hi, float *m, float *l, float *o);
#define G4_UNIT_QUERIES 64 /* queries that the decoder hands over together at most: rows x heads of a group */

/* The largest magnitude of a factor of 16 bits: a factor of each side can be added before they are multiplied. */
#define G4_MAX_FACTOR16 16383

/* Attention in 16-bit integers: a multiplication of two vectors does twice what it does with float32. The vision tower
 * uses it where its weights are not float32 and the table has it. It moves a soft token by 1e-3 of its size where
 * weights of 8 bits move it by 1e-1. Units make the integers numbers again. No sum can leave 32 bits:
 *   queries and keys: a row's norm is at most G4_NORM16, so that q . k < 2^31 (Cauchy-Schwarz)
 *   the weights of a tile: together at most G4_WEIGHTS16 + 32 */
#define G4_NORM16 46300
#define G4_WEIGHTS16 131000
typedef struct {         /* all 64 positions within the bounds, also those that nobody sees */
    const int16_t *k;    /* (head_dim / 2, 64, 2): two dims of a position beside each other */
    const int16_t *v;    /* (32, pad16(head_dim), 2): a dim of two positions beside each other */
    const float *k_unit; /* (64) */
    float v_unit;
} g4_tile16;

/* One tile, of which all queries see the first n_keys positions; q (n_q, head_dim), o (n_q, pad16(head_dim)).
 *   s[j] = q . k[j] * (q_unit * k_unit[j]);  m' = max(m, max s);  p[j] = exp(s[j] - m')
 *   unit = max(max p / G4_MAX_FACTOR16, sum p / G4_WEIGHTS16);  w[j] = round-half-to-even(p[j] / unit)
 *   l = l * exp(m - m') + unit * sum_j w[j];  o = o * exp(m - m') + unit * v_unit * sum_j w[j] v[j]
 * head_dim is a multiple of 4. Otherwise as g4_attend_fn. */
typedef void (*g4_attend16_fn)(const g4_tile16 *tile, int n_keys, int head_dim, const int16_t *q, const float *q_unit,
                               int n_q, float *m, float *l, float *o);

/* A matrix of bytes times inputs of 16 bits, for the towers: one unit for a whole row of weights and one for all inputs
 * of a token, so that sums stay integers from the first column to the last. Finer than inputs of 8 bits with a scale
 * for each 32, and faster where no instruction multiplies signed bytes.
 *   unit of a row = max(sqrt(sum of 32 * 128^2 * scale^2 over its blocks) / G4_NORM_PRODUCT16, FLT_MIN)
 *   v[c] = (q[c] * m + 64) >> 7, m = round-half-to-even(scale * (128 / unit)): weight c in that unit
 *   y[t * y_stride + r] = sum_c v[r][c] x[t][c] * (unit of r * x_unit[t]) within [min, max], all rows, n tokens
 * Sums stay below 2^31 by Cauchy-Schwarz, since the norms of a row and a token are at most G4_NORM_PRODUCT16 before
 * they are rounded (46000 leaves room for the rounding of 200,000 columns); an input plus a weight stays below 2^15. */
#define G4_NORM_PRODUCT16 46000.0f
#define G4_ROOT_PRODUCT16 (724.07734f / G4_NORM_PRODUCT16) /* sqrt(32 * 128^2) / norm */
typedef void (*g4_product16_fn)(float *y, size_t y_stride, const g4_matrix *w, const int16_t *x, const float *x_unit,
                                int n, float min, float max);

/* To the nearest, half to even; at most 127, or 32767, each way, also what is no number. */
static inline int8_t g4_to_int8(float x)
{
    const float v = x < 127.0f ? x : 127.0f;
    return (int8_t)rintf(v > -127.0f ? v : -127.0f);
}
static inline int16_t g4_to_int16(float x) { return (int16_t)rintf(fminf(fmaxf(x, -32767.0f), 32767.0f)); }

#define G4_QUANT_MIN 0x1p-100f /* a block whose largest magnitude is below is all zeros: 127 / max must stay finite */

typedef struct {
    const char *isa;
    int (*usable)(void); /* does this CPU (and operating system) have it? */
    g4_gemm_fn gemm[G4_N_TYPES];
    /* NULL for a type without such a product, and where gemm is as fast or it was not measured; quantize16 is there
     * when one of them is. */
    g4_product16_fn product16[G4_N_TYPES];
    /* q, d, sum of one token; cols a multiple of 32. d = max|x| / 127, q = round-half-to-even(x * (127 / max|x|)) */
    void (*quantize)(int8_t *q, float *d, int16_t *sum, const float *x, int cols);
    /* Inputs of product16, one token: unit = max(norm of x / G4_NORM_PRODUCT16, max|x| / G4_MAX_FACTOR16, FLT_MIN),
     * q = round-half-to-even(x / unit), of each 32 inputs the even ones and then the odd ones; cols a multiple of 32 */
    void (*quantize16)(int16_t *q, float *unit, const float *x, int cols);
    g4_attend_fn attend;
    /* y = round-half-to-even(x * inverse), at most 32767 each way */
    void (*round16)(int16_t *y, const float *x, float inverse, int n);
    g4_attend16_fn attend16; /* NULL with round16: not faster than attend, or not measured */
    void (*rmsnorm)(float *y, const float *x, const float *w, int n, float eps); /* w NULL: none; y may be x */
    void (*geglu)(float *y, const float *gate, const float *up, int n); /* y = gelu_tanh(gate) * up; y may be either */
    void (*softcap)(float *x, int n, float cap);                        /* x = cap * tanh(x / cap) */
} g4_kernels;
/* All tables of this build, best first, scalar last; *n gets their number. */
const g4_kernels *const *g4_kernel_tables(int *n);
const g4_kernels *g4_usable_table(int i); /* the i-th that this CPU can run, best first; NULL past the last */

float g4_f16_to_f32(uint16_t h);
uint16_t g4_f32_to_f16(float f); /* round to nearest even; beyond +-65504 becomes +-65504 so that 0 * value stays 0 */
static inline float g4_bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } x = { (uint32_t)h << 16 };
    return x.f;
}
static inline float g4_scale_value(uint16_t bits, g4_scale_type type)
{
    return type == G4_SCALE_BF16 ? g4_bf16_to_f32(bits) : g4_f16_to_f32(bits);
}
static inline uint16_t g4_load_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline float g4_clamp(float x, float lo, float hi) /* NaN stays */
{
    const float v = x < lo ? lo : x;
    return v > hi ? hi : v;
}

/* ---- The open model file (file.c) ------------------------------------------------------------------ */

#define G4_MAX_PLE_DIM 1024
#define G4_MAX_AUDIO_CONTEXT 64

typedef struct {
    const uint8_t *data;
    size_t size;
    uint8_t *mapping; /* the same place when it is a mapping of ours, to be advised and given back; else NULL */
    int is_copy;      /* and when that is memory into which the file is read: up to here, its header and tables */
    int fd, is_open;  /* the file, until g4_file_leave */
    int locked;       /* weights have been locked in memory, or some of them */
    g4_config config;
    g4_layer_config *layers;      /* (n_layers) */
    const g4_tensor_entry *table; /* (n_tensors), in the file */
    uint8_t *bound;               /* (n_tensors): a weight has taken this tensor */
    int n_tensors;
    const uint8_t *tokenizer;
    size_t tokenizer_size;
} g4_file;
/* Map opt->model_path, or begin to read it, or take the bytes at opt->model_data, then check everything but the values
 * of tensors. Errors name the path. */
g4_status g4_file_open(g4_file *f, const g4_engine_options *opt, const g4_allocator *a, g4_halt *halt, g4_error *err);
size_t g4_file_data_offset(const g4_file *f); /* where the tensors begin */
/* Read `size` bytes at offset `from` of a file that is open still. */
g4_status g4_file_read(const g4_file *f, void *to, size_t from, size_t size, g4_halt *halt, g4_error *err);
void g4_file_leave(g4_file *f); /* nothing more is read; a mapping stays */
void g4_file_close(g4_file *f, const g4_allocator *a);

/* What finds tensors by name and remembers the first failure; later calls do nothing. The name is PREFIX.LAYER.FIELD,
 * or PREFIX alone where the layer is -1. */
typedef struct {
    g4_file *file;
    int static_acts; /* activations are to be rounded by the file's scales */
    int cursor;      /* tensors mostly stand in the order in which they are asked for */
    g4_halt *halt;
    g4_error *err;
    g4_status status;
} g4_binder;
const float *g4_bind_vector(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t n); /* plain f32 */
const float *g4_bind_array(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t rows,
                           uint64_t cols); /* plain f32 */
/* Static scales (n, 2) under the name `act`. NULL where they are not to be used; to be used they must be there. */
const float *g4_bind_act(g4_binder *b, const char *prefix, int layer, uint64_t n);
g4_matrix g4_bind_matrix(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t rows, uint64_t cols);
g4_table g4_bind_table(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t rows, uint64_t cols);
/* n matrices (rows, cols). */
g4_stack g4_bind_stack(g4_binder *b, const char *prefix, int layer, const char *field, uint64_t n, uint64_t rows,
                       uint64_t cols);
/* Fails unless every tensor was asked for: one that nobody reads means that writer and reader disagree. */
void g4_bind_end(g4_binder *b);

/* ---- Tokenizer ------------------------------------------------------------------------------ */

typedef struct {
    g4_token *ids;
    size_t n, cap;
} g4_tokens;

/* Read-only view of the tokenizer section in the mapped file; binding checks everything once and builds nothing.
 * tokenizer.c says what the tables hold. */
typedef struct g4_tok_node g4_tok_node;
typedef struct g4_tokenizer {
    uint32_t n_vocab, n_ranks, n_slots, n_buckets, n_pages, pair_bits, n_nodes, depth, strings_size;
    const uint32_t *offsets;         /* (n_vocab + 1) */
    const uint8_t *strings;          /* (strings_size) */
    const uint32_t *control;         /* (n_vocab / 32, rounded up) */
    const uint16_t *pages;           /* (0x110000 / 64) */
    const uint32_t *chars;           /* (n_pages, 64) */
    const uint32_t *bytes;           /* (256) */
    const uint16_t *buckets;         /* (n_buckets) */
    const uint64_t *merges;          /* (n_slots) */
    const uint32_t *joined;          /* (n_ranks) */
    const uint64_t *ascii;           /* (128, 2) */
    const uint8_t *pairs;            /* (2^pair_bits bits) */
    const g4_tok_node *trie;         /* (n_nodes) */
    const uint8_t *first;            /* (256) */
    struct g4_vocabulary_home *home; /* set by who owns both; NULL: every grammar makes a vocabulary of its own */
} g4_tokenizer;
g4_status g4_tokenizer_bind(g4_tokenizer *t, const void *blob, size_t size, uint32_t n_vocab, g4_error *err);
/* Append the ids of text to out. specials nonzero: markers such as <|turn> become control tokens (trusted text only).
 * No BOS. When that fails or is halted, out holds what it held. */
g4_status g4_tokenizer_encode(const g4_tokenizer *t, const g4_allocator *a, const char *text, size_t len, int specials,
                              g4_tokens *out, g4_halt *halt, g4_error *err);
/* The bytes of one token; *special says whether it is a control token. id must be < n_vocab. At most 255 bytes,
 * written to out[256]. */
size_t g4_tokenizer_piece(const g4_tokenizer *t, g4_token id, char *out, int *special);
/* The bytes of a token that is text, where they stand; *len 0: it is a control token, or writes nothing. */
const uint8_t *g4_tokenizer_text(const g4_tokenizer *t, uint32_t id, uint32_t *len);
/* What the tokenizer alone can tell of an id: never G4_TOKEN_MEDIA. */
g4_token_kind g4_tokenizer_kind(const g4_tokenizer *t, g4_token id);
/* The control token of that exact name, or -1. */
g4_token g4_tokenizer_special(const g4_tokenizer *t, const char *name, size_t len);

/* ---- Vocabulary (vocabulary.c) ----------------------------------------------------------------------------- */

typedef struct { /* a text that is sorted: of a token, or of its end */
    uint64_t key;
    const uint8_t *text;
    uint32_t len, id; /* of at most 255 bytes */
} g4_word;
/* By their bytes, then by id. Returns 0 when out of memory or halted. */
int g4_words_sort(const g4_allocator *a, g4_word *words, uint32_t n, g4_halt *halt);

typedef uint64_t g4_sorts; /* of characters, as bits */
#define G4_ALL_SORTS UINT64_MAX
typedef struct {
    uint32_t child;      /* the first; they stand side by side by ascending byte */
    uint32_t first, end; /* words that begin with the bytes of this node; those before its child's end here */
    uint32_t n_children : 9;
    uint32_t has_tails : 1; /* it has no children but few words: what each goes on with stands in the tails, one behind
                               the other from `child` on, the number of bytes before it */
    /* In a tree of plain characters, what the words go on with: */
    uint32_t n_chars : 8;  /* the longest, in characters; 255: or longer */
    uint32_t is_whole : 1; /* whole characters lead to this node */
    g4_sorts sorts;        /* of these characters: g4_vocabulary.sort_of */
} g4_trie_node;
typedef struct { /* texts with shared beginnings; node 0 is the root */
    g4_trie_node *nodes;
    uint8_t *bytes; /* (n_nodes) that lead to a node */
    uint8_t *tails; /* (n_tails) bytes */
    uint32_t *ids;  /* of the words, in order */
    uint32_t n_nodes, n_tails;
    int is_plain; /* of plain characters */
} g4_trie;
/* Of n sorted words. few: as many below a node stand in tails. Returns 0 when out of memory or halted. */
int g4_trie_make(g4_trie *t, const g4_allocator *a, const g4_word *words, uint32_t n, uint32_t few, g4_halt *halt);
void g4_trie_free(g4_trie *t, const g4_allocator *a);

/* Where the words of a node end that end at it: from its first one on. */
static inline uint32_t g4_trie_end_here(const g4_trie *t, const g4_trie_node *n)
{
    return n->has_tails ? n->first : n->n_children > 0 ? t->nodes[n->child].first : n->end;
}

#define G4_TRIE_DEPTH 257 /* levels of a walk */
typedef struct {          /* brothers that are still to be visited */
    uint32_t next, end;
} g4_trie_level;
static inline g4_trie_level g4_trie_below(const g4_trie *t, uint32_t node)
{
    return (g4_trie_level) { t->nodes[node].child, t->nodes[node].child + t->nodes[node].n_children };
}

typedef struct g4_finding { /* something that was found out by a grammar, which stands behind this */
    struct g4_finding *next;
    uint64_t key[2];
} g4_finding;
#define G4_N_FINDINGS 4096

enum { G4_TRIE_PLAIN, G4_TRIE_REST }; /* plain: of characters that stand in a JSON string as they are */
typedef struct {
    const g4_allocator *a;
    uint32_t n_vocab, longest, longest_plain; /* characters of the longest token */
    g4_sorts sort_of[256]; /* of a plain character by its first byte, as one bit; 0: none begins so */
    g4_trie tries[2];
    uint32_t
        *plain; /* (longest_plain + 1, n_vocab / 32 rounded up): sets of plain tokens of at most so many characters */
    g4_sorts *word_sorts; /* of all characters of each word of the plain tree, in its order */
    uint8_t *word_chars;  /* their number */
    _Atomic(g4_finding *) findings[G4_N_FINDINGS];
    atomic_size_t findings_bytes;
} g4_vocabulary;
typedef struct g4_vocabulary_home { /* where the vocabulary of a tokenizer is, once it is made; zero it, with a set */
    const g4_allocator *a;
    _Atomic(g4_vocabulary *) made;
} g4_vocabulary_home;
/* The vocabulary of the tokenizer's home, made if there is none yet, or one of the caller's own, which is to be closed.
 * NULL: no memory, or halted. Any number of threads may ask. */
g4_vocabulary *g4_vocabulary_of(const g4_tokenizer *t, const g4_allocator *a, g4_halt *halt, int *is_own);
void g4_vocabulary_close(g4_vocabulary *v);
void g4_vocabulary_home_close(g4_vocabulary_home *home);
/* What was kept under a key, or NULL. */
const g4_finding *g4_vocabulary_find(const g4_vocabulary *v, const uint64_t key[2]);
/* Keep a block from the vocabulary's allocator, which begins with a g4_finding whose key is set. 0: there is no more
 * room, and the block stays the caller's. */
int g4_vocabulary_keep(g4_vocabulary *v, g4_finding *k, size_t bytes);

/* ---- Sampling (sample.c) ------------------------------------------------------------------------------------ */

/* The k best of n scores with their indices as tokens, best first, in out (k); ties go to the lower index, and
 * -INFINITY never enters. Returns their number. */
int g4_top(const float *score, int n, int k, g4_candidate *out);
/* Logarithm of the sum of exponentials of n softcapped logits: what log-probabilities are relative to. */
double g4_log_sum(const float *logits, int n);
int g4_penalises(const g4_sampling *p); /* does it change logits by penalties or bias? */

typedef struct { /* what a token is chosen from; plain arrays of the caller */
    int n_vocab;
    const float *logits; /* (n_vocab), softcapped; not read where there are `few` */
    float *work;         /* (n_vocab): scratch; with `few`, the logits of those tokens on entry */
    const g4_token *few; /* (n_few), ascending: all tokens that come into question; NULL: any */
    int n_few;
    const uint32_t *mask; /* (n_vocab / 32 + 1): bits of allowed tokens; NULL: all. Not read where there are `few` */
    uint32_t *seen;       /* (n_vocab / 32 + 1): scratch */
    g4_candidate *candidates; /* (n_vocab): scratch */
    const g4_token *tokens;   /* (n_tokens): the timeline; its length is the position that is chosen for */
    int n_tokens, reply_start;
} g4_choice;
/* The next token: penalties and bias, mask, temperature, top-k, top-p, min-p, then one random number, a function of
 * seed and position. -1 when nothing is allowed. */
g4_token g4_sample(const g4_choice *c, const g4_sampling *p);

#endif /* GEMMA4_PARTS_H */
