/* base.h - the lowest floor: errors, checked sizes, memory, growable bytes, UTF-8, a byte cursor (base.c). Every other
 * file stands on it.
 *
 * The project's own words:
 *
 *   row         One token or soft token of one timeline on its way through the model. Also a row of a matrix or table.
 *   pass        One run of the model over a list of rows.
 *   branch      Attention, MLP or per-layer input: reads the stream and adds to it.
 *   head        Of attention; or the matrix from final states to logits.
 *   state       Of a row behind the last layer, before its norm.
 *   wanted      A row whose logits somebody will read. The others stop behind the last owner.
 *   owner       A layer with keys and values of its own. Layers that share read those of the last owner of their kind.
 *   timeline    The tokens of a session and their keys and values.
 *   medium      A picture, a video frame or a block of sound among the tokens of a prompt.
 *   soft token  A vector from a tower that stands where a token's embedding would.
 *   two-way block  Soft tokens of one picture, or of pictures side by side, that see each other on sliding layers.
 *   page        Keys and values of 64 positions of one layer.
 *   tile        64 positions of one key/value head: what an attention kernel reads at once. In towers: 64 tokens. In
 *               products: 16 rows of weights for a few tokens.
 *   span        256 positions, after which partial results of attention are combined.
 *   unit        Neighbouring rows of one timeline that are attended together; of rounded numbers, what 1 stands for.
 *   snapshot    A position of a timeline that can be returned to; it holds pages instead of copies.
 *   group       16 outputs of a matrix, stored together; also the 16 logits they make.
 *   strip       A part of a group's columns that stays in cache while all tokens use it.
 *   panel       A strip in the form that products read.
 *   step        64 inputs of a group: the scales and weights of two blocks.
 *   block       32 inputs that share a scale.
 *   chunk       Positions that are evaluated in one pass; in stored weights, 4 inputs of each row of a group.
 *   run         In q4_0: two chunks, in the low and the high nibbles of 64 bytes.
 *   piece       The smallest part of a job; a thread claims some at a time. What a piece computes does not depend on
 *               who runs it. Of a token: its bytes.
 *   room        Memory that a worker may write while it runs a piece.
 *   share       The rows of a pass that one matrix of a stack multiplies: an expert's, or all.
 *   ready       Of a row of activations: padded and, where matrices read integers, rounded.
 *   guess       A token that prompt lookup expects, evaluated together with the one before it.
 *   table       The kernels of one instruction set; or weights that are looked up by row and never multiplied.
 */
#ifndef GEMMA4_BASE_H
#define GEMMA4_BASE_H

#include "../gemma4.h" /* first: it asks libc for all that the implementation needs */

/* Results are equal bits wherever they are computed, so a * b + c rounds twice unless the source asks for a fused
 * multiply-add. gcc fuses across statements and through intrinsics, in its default language and wherever the target can
 * do it; clang fuses within an expression. Whatever the flags, from here to the end of the implementation neither does;
 * the end of gemma4.h hands the user's code its own rules back. (Only clang with -ffp-contract=fast cannot be told.) */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off")
#else
#pragma STDC FP_CONTRACT OFF
#endif

#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---- Errors, checked arithmetic, allocation ---------------------------------------------- */

#if defined(__GNUC__)
#define G4_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define G4_PRINTF(fmt, args)
#endif

/* Fill err (which may be NULL) and return code, so that a check is one line: return g4_fail(err, G4_ERR_IO, ...). */
g4_status g4_fail(g4_error *err, g4_status code, const char *fmt, ...) G4_PRINTF(3, 4);

/* *out = a * b or a + b; return nonzero, leaving *out alone, when it does not fit. */
static inline int g4_mul_overflows(size_t a, size_t b, size_t *out)
{
    if (a != 0 && b > SIZE_MAX / a) return 1;
    *out = a * b;
    return 0;
}
static inline int g4_add_overflows(size_t a, size_t b, size_t *out)
{
    if (b > SIZE_MAX - a) return 1;
    *out = a + b;
    return 0;
}
static inline size_t g4_round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }
static inline int g4_min_int(int a, int b) { return a < b ? a : b; }
static inline int g4_max_int(int a, int b) { return a > b ? a : b; }
static inline size_t g4_min_size(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t g4_max_size(size_t a, size_t b) { return a > b ? a : b; }
/* The order of bytes, and of two texts of which one begins with the other the shorter first: below 0, 0, above 0. */
static inline int g4_bytes_compare(const void *a, size_t n_a, const void *b, size_t n_b)
{
    const size_t n = n_a < n_b ? n_a : n_b;
    const int c = n > 0 ? memcmp(a, b, n) : 0;
    return c != 0 ? c : (n_a > n_b) - (n_a < n_b);
}

#define G4_ALIGN 64 /* a cache line, and one 512-bit vector */

/* All memory of the library. A block remembers its size, is aligned to 64 bytes and filled with zeros.
 * A NULL allocator means malloc and free. g4_alloc returns NULL when count * size overflows or memory is out. */
void *g4_alloc(const g4_allocator *a, size_t count, size_t size);
/* Grow or shrink to count * size, keeping the contents and zeroing the rest. On failure returns NULL and leaves ptr
 * valid. */
void *g4_realloc(const g4_allocator *a, void *ptr, size_t count, size_t size);
void g4_free(const g4_allocator *a, void *ptr); /* NULL is fine */
/* An array of n elements that has room for *cap gets room for one more: returns where it is now. NULL: no memory, and
 * the array is as it was. */
void *g4_array_grow(const g4_allocator *a, void *array, int n, int *cap, size_t size);

/* Blocks that are given back together. Zero it to start, with `a` set; a builder asks for all it needs and looks at
 * `failed` once, at its end. */
typedef struct {
    const g4_allocator *a;
    void *newest;    /* each block points to the one before it */
    uint64_t bytes;  /* asked for so far */
    int only_counts; /* nonzero: nothing is allocated, every block is NULL */
    int failed;
} g4_blocks;
/* (rows, cols) elements, zeros; NULL, and `failed` from then on, when rows * cols * size overflows or memory is out. */
void *g4_blocks_add(g4_blocks *b, size_t rows, size_t cols, size_t size);
void g4_blocks_free(g4_blocks *b);

/* ---- Ending a call early ----------------------------------------------------------------------- */

double g4_seconds(void); /* of a clock that only goes forward */

/* What a call in progress asks with each piece of work: must it end? One for each call, on its stack; all threads that
 * work for the call may ask it. */
#define G4_HALT_FLAGS 3
typedef struct {
    const g4_cancel *flags[G4_HALT_FLAGS]; /* any of them ends the call */
    int n_flags;
    double deadline;  /* on the clock of g4_seconds; 0: none */
    double seconds;   /* that were allowed until then */
    atomic_int ended; /* 1: asked for, 2: no time left. It stays so: what was left out is never taken for done */
    void (*rest)(void *user); /* what may be done between two parts of long work; NULL: nothing */
    void *user;               /* for rest */
} g4_halt;
void g4_halt_open(g4_halt *h);                         /* nothing ends the call */
void g4_halt_add(g4_halt *h, const g4_limits *limits); /* neither later than this; NULL: no limits */
void g4_halt_add_flag(g4_halt *h, const g4_cancel *flag);
int g4_halted(g4_halt *h);                          /* NULL: never */
g4_status g4_halt_check(g4_halt *h, g4_error *err); /* G4_ERR_CANCELED, with the reason, once it is halted */

/* What may be as long as a file is copied in pieces, after each of which the halt is asked. */
#define G4_COPY_PIECE 65536
int g4_copy(void *to, const void *from, size_t n, g4_halt *h); /* memcpy; 0: it is halted, and not all is copied */
/* Memory for count * size with the first `used` bytes of ptr, which is freed. NULL, and ptr is as it was, when the halt
 * ends the call or memory is out. */
void *g4_grow(const g4_allocator *a, void *ptr, size_t used, size_t count, size_t size, g4_halt *h);

/* ---- Growable bytes ---------------------------------------------------------------------------- */

/* A byte string that grows; data is NUL-terminated whenever it is not NULL. After a failed allocation `failed`
 * stays set and further appends do nothing, so a builder checks once, at its end. Zero it to start, with `a` set. */
typedef struct {
    const g4_allocator *a;
    char *data;
    size_t len, cap;
    int failed;
} g4_buf;
int g4_buf_reserve(g4_buf *b, size_t n); /* room for n more bytes; 0 when failed */
void g4_buf_add(g4_buf *b, const void *data, size_t n);
void g4_buf_str(g4_buf *b, const char *s);
void g4_buf_fmt(g4_buf *b, const char *fmt, ...) G4_PRINTF(2, 3);
void g4_buf_free(g4_buf *b);

/* ---- UTF-8 ------------------------------------------------------------------------------------- */

/* Bytes of the well-formed sequence at the start of text, of which n bytes are left, and its code point in *cp. 0:
 * there is none (it ends early, has a stray byte, is overlong, a surrogate, beyond U+10FFFF), and *cp is as it was. */
static inline size_t g4_utf8_decode(const void *text, size_t n, uint32_t *cp)
{
    const uint8_t *p = (const uint8_t *)text;
    if (n == 0) return 0;
    const uint32_t a = p[0];
    if (a < 0x80) {
        *cp = a;
        return 1;
    }
    if (a < 0xc2 || n < 2 || (p[1] & 0xc0) != 0x80) return 0;
    const uint32_t b = p[1] & 0x3fu;
    if (a < 0xe0) {
        *cp = (a & 0x1f) << 6 | b;
        return 2;
    }
    if (n < 3 || (p[2] & 0xc0) != 0x80) return 0;
    const uint32_t c = p[2] & 0x3fu;
    if (a < 0xf0) {
        const uint32_t three = (a & 0x0f) << 12 | b << 6 | c;
        if (three < 0x800 || (three >= 0xd800 && three <= 0xdfff)) return 0;
        *cp = three;
        return 3;
    }
    if (a > 0xf4 || n < 4 || (p[3] & 0xc0) != 0x80) return 0;
    const uint32_t four = (a & 0x07) << 18 | b << 12 | c << 6 | (p[3] & 0x3fu);
    if (four < 0x10000 || four > 0x10ffff) return 0;
    *cp = four;
    return 4;
}
/* The sequence of a code point into out; returns its bytes. */
size_t g4_utf8_encode(uint32_t cp, char out[4]);
/* Does this byte go on with a sequence that began before it? */
static inline int g4_utf8_continues(char byte) { return ((unsigned char)byte & 0xc0) == 0x80; }

/* ---- Byte cursor -------------------------------------------------------------------------------- */

/* Reads little-endian fields and cannot run over: after a read past the end `bad` stays set and every read gives 0. */
typedef struct {
    const uint8_t *data;
    size_t size, pos;
    int bad;
} g4_reader;
const uint8_t *g4_read_bytes(g4_reader *r, size_t n); /* NULL when fewer are left */
uint32_t g4_read_u32(g4_reader *r);
uint64_t g4_read_u64(g4_reader *r);

#endif /* GEMMA4_BASE_H */
