/* vp8.c - lossy WebP: a key frame of VP8 (RFC 6386) to planes of Y, U and V, bit for bit as libwebp makes them before
 * it upsamples them. Macroblocks of 16 x 16 pixels come row by row: their modes from one stream of bits, their
 * coefficients from one of up to eight others. Each is guessed from what stands above and to the left of it, which is
 * not filtered yet, and its residue is added. A row that is whole is filtered, and with it the end of the one above. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

#include <stdlib.h>

/* How a block is guessed; sub-blocks have six more ways. */
enum { G4_VP8_DC, G4_VP8_TM, G4_VP8_V, G4_VP8_H };
enum { G4_VP8_Y_REST, G4_VP8_Y2, G4_VP8_UV, G4_VP8_Y_WHOLE, G4_VP8_KINDS }; /* of blocks: Y2 has the DC of Y_REST */
enum { G4_VP8_NONE, G4_VP8_ONLY_DC, G4_VP8_THREE, G4_VP8_FULL };            /* coefficients of a block */
#define G4_VP8_PROBS 11 /* in a coefficient, for each kind of block, ... */
#define G4_VP8_BANDS 8  /* ... band of its place, ... */
#define G4_VP8_SEEN 3   /* ... and what came before: zero, one, more */
#define G4_VP8_SEGMENTS 4
#define G4_VP8_PARTS 8
#define G4_VP8_WIDE 32  /* bytes of a row of g4_vp8_block */
#define G4_VP8_LANES 16 /* places of an edge that are filtered at once */

typedef struct {
    const uint8_t *p, *end;
    uint64_t value; /* bits that are there and not used up, ... */
    int n;          /* ... n + 8 of them */
    uint32_t range;
    int is_over; /* bits behind the end were asked for */
} g4_vp8_bits;

typedef struct {
    uint16_t y[2], y2[2], uv[2]; /* of DC, of others */
} g4_vp8_steps;

typedef struct {
    uint8_t limit, inner, hev; /* limit 0: it is not filtered; hev: a step between pixels that is kept */
} g4_vp8_strength;

/* What the macroblocks of a row leave for those below them, and for the filter. */
typedef struct {
    uint8_t y[16], u[8], v[8]; /* their last rows */
    uint8_t modes[4];          /* of their lower sub-blocks */
    uint16_t set;              /* which blocks at their lower side had coefficients: bits of 4 Y, 2 U, 2 V, Y2 */
    g4_vp8_strength strength;
    uint8_t has_inner; /* edges inside are filtered, too */
} g4_vp8_column;

/* A macroblock's pixels, from (1, 8) on, with those around it. Y has 4 more in each row to its right. */
typedef struct {
    uint8_t y[17 * G4_VP8_WIDE], u[9 * G4_VP8_WIDE], v[9 * G4_VP8_WIDE];
} g4_vp8_block;
#define G4_VP8_AT (G4_VP8_WIDE + 8)

typedef struct {
    const g4_media_limits *m;
    uint32_t mb_w, mb_h;
    g4_vp8_bits head, part[G4_VP8_PARTS];
    uint32_t n_parts;
    int has_segments, has_map, is_absolute; /* is_absolute: segments have their own numbers, not what is added */
    int quantizer[G4_VP8_SEGMENTS], level[G4_VP8_SEGMENTS];
    uint8_t map[3]; /* probabilities of the number of a segment */
    int is_filtered, is_simple, filter_level, sharpness, has_deltas, delta_intra, delta_sub;
    g4_vp8_steps steps[G4_VP8_SEGMENTS];
    g4_vp8_strength strength[G4_VP8_SEGMENTS][2]; /* of whole modes, of modes of sub-blocks */
    uint8_t probs[G4_VP8_KINDS][G4_VP8_BANDS * G4_VP8_SEEN * G4_VP8_PROBS];
    int has_skip;
    uint8_t skip;          /* probability that a macroblock has coefficients */
    g4_vp8_column *column; /* (mb_w) */
    uint8_t left_modes[4];
    uint16_t left_set;
    int16_t coef[24 * 16];
    uint8_t amount[24]; /* of coefficients: G4_VP8_NONE and so on */
    g4_vp8_block block;
    g4_vp8_planes planes;
} g4_vp8;

/* ---- Numbers of the standard ------------------------------------------------------------------- */

static const char g4_vp8_short[] = "truncated";

/* By how many bits a range is less than 128 (7.3). */
static const uint8_t g4_vp8_shift[256] = { 0, 7, 6, 6, 5, 5, 5, 5, 4, 4, 4, 4, 4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3,
                                           3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
                                           2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                           1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                           1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };

/* Probabilities in coefficients: (kinds, bands, contexts, each) (13.5). */
static const uint8_t g4_vp8_default[1056] = {
    128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
    128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 253, 136, 254, 255, 228, 219, 128, 128, 128, 128, 128, 189, 129,
    242, 255, 227, 213, 255, 219, 128, 128, 128, 106, 126, 227, 252, 214, 209, 255, 255, 128, 128, 128, 1,   98,  248,
    255, 236, 226, 255, 255, 128, 128, 128, 181, 133, 238, 254, 221, 234, 255, 154, 128, 128, 128, 78,  134, 202, 247,
    198, 180, 255, 219, 128, 128, 128, 1,   185, 249, 255, 243, 255, 128, 128, 128, 128, 128, 184, 150, 247, 255, 236,
    224, 128, 128, 128, 128, 128, 77,  110, 216, 255, 236, 230, 128, 128, 128, 128, 128, 1,   101, 251, 255, 241, 255,
    128, 128, 128, 128, 128, 170, 139, 241, 252, 236, 209, 255, 255, 128, 128, 128, 37,  116, 196, 243, 228, 255, 255,
    255, 128, 128, 128, 1,   204, 254, 255, 245, 255, 128, 128, 128, 128, 128, 207, 160, 250, 255, 238, 128, 128, 128,
    128, 128, 128, 102, 103, 231, 255, 211, 171, 128, 128, 128, 128, 128, 1,   152, 252, 255, 240, 255, 128, 128, 128,
    128, 128, 177, 135, 243, 255, 234, 225, 128, 128, 128, 128, 128, 80,  129, 211, 255, 194, 224, 128, 128, 128, 128,
    128, 1,   1,   255, 128, 128, 128, 128, 128, 128, 128, 128, 246, 1,   255, 128, 128, 128, 128, 128, 128, 128, 128,
    255, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 198, 35,  237, 223, 193, 187, 162, 160, 145, 155, 62,  131,
    45,  198, 221, 172, 176, 220, 157, 252, 221, 1,   68,  47,  146, 208, 149, 167, 221, 162, 255, 223, 128, 1,   149,
    241, 255, 221, 224, 255, 255, 128, 128, 128, 184, 141, 234, 253, 222, 220, 255, 199, 128, 128, 128, 81,  99,  181,
    242, 176, 190, 249, 202, 255, 255, 128, 1,   129, 232, 253, 214, 197, 242, 196, 255, 255, 128, 99,  121, 210, 250,
    201, 198, 255, 202, 128, 128, 128, 23,  91,  163, 242, 170, 187, 247, 210, 255, 255, 128, 1,   200, 246, 255, 234,
    255, 128, 128, 128, 128, 128, 109, 178, 241, 255, 231, 245, 255, 255, 128, 128, 128, 44,  130, 201, 253, 205, 192,
    255, 255, 128, 128, 128, 1,   132, 239, 251, 219, 209, 255, 165, 128, 128, 128, 94,  136, 225, 251, 218, 190, 255,
    255, 128, 128, 128, 22,  100, 174, 245, 186, 161, 255, 199, 128, 128, 128, 1,   182, 249, 255, 232, 235, 128, 128,
    128, 128, 128, 124, 143, 241, 255, 227, 234, 128, 128, 128, 128, 128, 35,  77,  181, 251, 193, 211, 255, 205, 128,
    128, 128, 1,   157, 247, 255, 236, 231, 255, 255, 128, 128, 128, 121, 141, 235, 255, 225, 227, 255, 255, 128, 128,
    128, 45,  99,  188, 251, 195, 217, 255, 224, 128, 128, 128, 1,   1,   251, 255, 213, 255, 128, 128, 128, 128, 128,
    203, 1,   248, 255, 255, 128, 128, 128, 128, 128, 128, 137, 1,   177, 255, 224, 255, 128, 128, 128, 128, 128, 253,
    9,   248, 251, 207, 208, 255, 192, 128, 128, 128, 175, 13,  224, 243, 193, 185, 249, 198, 255, 255, 128, 73,  17,
    171, 221, 161, 179, 236, 167, 255, 234, 128, 1,   95,  247, 253, 212, 183, 255, 255, 128, 128, 128, 239, 90,  244,
    250, 211, 209, 255, 255, 128, 128, 128, 155, 77,  195, 248, 188, 195, 255, 255, 128, 128, 128, 1,   24,  239, 251,
    218, 219, 255, 205, 128, 128, 128, 201, 51,  219, 255, 196, 186, 128, 128, 128, 128, 128, 69,  46,  190, 239, 201,
    218, 255, 228, 128, 128, 128, 1,   191, 251, 255, 255, 128, 128, 128, 128, 128, 128, 223, 165, 249, 255, 213, 255,
    128, 128, 128, 128, 128, 141, 124, 248, 255, 255, 128, 128, 128, 128, 128, 128, 1,   16,  248, 255, 255, 128, 128,
    128, 128, 128, 128, 190, 36,  230, 255, 236, 255, 128, 128, 128, 128, 128, 149, 1,   255, 128, 128, 128, 128, 128,
    128, 128, 128, 1,   226, 255, 128, 128, 128, 128, 128, 128, 128, 128, 247, 192, 255, 128, 128, 128, 128, 128, 128,
    128, 128, 240, 128, 255, 128, 128, 128, 128, 128, 128, 128, 128, 1,   134, 252, 255, 255, 128, 128, 128, 128, 128,
    128, 213, 62,  250, 255, 255, 128, 128, 128, 128, 128, 128, 55,  93,  255, 128, 128, 128, 128, 128, 128, 128, 128,
    128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128,
    128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 202, 24,  213, 235, 186, 191, 220, 160, 240, 175, 255, 126, 38,
    182, 232, 169, 184, 228, 174, 255, 187, 128, 61,  46,  138, 219, 151, 178, 240, 170, 255, 216, 128, 1,   112, 230,
    250, 199, 191, 247, 159, 255, 255, 128, 166, 109, 228, 252, 211, 215, 255, 174, 128, 128, 128, 39,  77,  162, 232,
    172, 180, 245, 178, 255, 255, 128, 1,   52,  220, 246, 198, 199, 249, 220, 255, 255, 128, 124, 74,  191, 243, 183,
    193, 250, 221, 255, 255, 128, 24,  71,  130, 219, 154, 170, 243, 182, 255, 255, 128, 1,   182, 225, 249, 219, 240,
    255, 224, 128, 128, 128, 149, 150, 226, 252, 216, 205, 255, 171, 128, 128, 128, 28,  108, 170, 242, 183, 194, 254,
    223, 255, 255, 128, 1,   81,  230, 252, 204, 203, 255, 192, 128, 128, 128, 123, 102, 209, 247, 188, 196, 255, 233,
    128, 128, 128, 20,  95,  153, 243, 164, 173, 255, 203, 128, 128, 128, 1,   222, 248, 255, 216, 213, 128, 128, 128,
    128, 128, 168, 175, 246, 252, 235, 205, 255, 255, 128, 128, 128, 47,  116, 215, 255, 211, 212, 255, 255, 128, 128,
    128, 1,   121, 236, 253, 212, 214, 255, 255, 128, 128, 128, 141, 84,  213, 252, 201, 202, 255, 219, 128, 128, 128,
    42,  80,  160, 240, 162, 185, 255, 205, 128, 128, 128, 1,   1,   255, 128, 128, 128, 128, 128, 128, 128, 128, 244,
    1,   255, 128, 128, 128, 128, 128, 128, 128, 128, 238, 1,   255, 128, 128, 128, 128, 128, 128, 128, 128
};

/* Of each of these, that it stays as it is (13.4). */
static const uint8_t g4_vp8_update[1056] = {
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 176, 246, 255, 255, 255, 255, 255, 255, 255, 255, 255, 223, 241,
    252, 255, 255, 255, 255, 255, 255, 255, 255, 249, 253, 253, 255, 255, 255, 255, 255, 255, 255, 255, 255, 244, 252,
    255, 255, 255, 255, 255, 255, 255, 255, 234, 254, 254, 255, 255, 255, 255, 255, 255, 255, 255, 253, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 246, 254, 255, 255, 255, 255, 255, 255, 255, 255, 239, 253, 254, 255, 255,
    255, 255, 255, 255, 255, 255, 254, 255, 254, 255, 255, 255, 255, 255, 255, 255, 255, 255, 248, 254, 255, 255, 255,
    255, 255, 255, 255, 255, 251, 255, 254, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 253, 254, 255, 255, 255, 255, 255, 255, 255, 255, 251, 254, 254, 255, 255, 255, 255, 255,
    255, 255, 255, 254, 255, 254, 255, 255, 255, 255, 255, 255, 255, 255, 255, 254, 253, 255, 254, 255, 255, 255, 255,
    255, 255, 250, 255, 254, 255, 254, 255, 255, 255, 255, 255, 255, 254, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 217, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 225,
    252, 241, 253, 255, 255, 254, 255, 255, 255, 255, 234, 250, 241, 250, 253, 255, 253, 254, 255, 255, 255, 255, 254,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 223, 254, 254, 255, 255, 255, 255, 255, 255, 255, 255, 238, 253, 254,
    254, 255, 255, 255, 255, 255, 255, 255, 255, 248, 254, 255, 255, 255, 255, 255, 255, 255, 255, 249, 254, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 253, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 247, 254, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 253, 254, 255, 255, 255, 255, 255, 255, 255, 255, 252, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 254, 254, 255, 255, 255, 255, 255,
    255, 255, 255, 253, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 254, 253, 255, 255, 255, 255, 255, 255, 255, 255, 250, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 254, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 186,
    251, 250, 255, 255, 255, 255, 255, 255, 255, 255, 234, 251, 244, 254, 255, 255, 255, 255, 255, 255, 255, 251, 251,
    243, 253, 254, 255, 254, 255, 255, 255, 255, 255, 253, 254, 255, 255, 255, 255, 255, 255, 255, 255, 236, 253, 254,
    255, 255, 255, 255, 255, 255, 255, 255, 251, 253, 253, 254, 254, 255, 255, 255, 255, 255, 255, 255, 254, 254, 255,
    255, 255, 255, 255, 255, 255, 255, 254, 254, 254, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 254, 255, 255, 255, 255, 255, 255, 255, 255, 255, 254, 254, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 254, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 254, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 248, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 250, 254,
    252, 254, 255, 255, 255, 255, 255, 255, 255, 248, 254, 249, 253, 255, 255, 255, 255, 255, 255, 255, 255, 253, 253,
    255, 255, 255, 255, 255, 255, 255, 255, 246, 253, 253, 255, 255, 255, 255, 255, 255, 255, 255, 252, 254, 251, 254,
    254, 255, 255, 255, 255, 255, 255, 255, 254, 252, 255, 255, 255, 255, 255, 255, 255, 255, 248, 254, 253, 255, 255,
    255, 255, 255, 255, 255, 255, 253, 255, 254, 254, 255, 255, 255, 255, 255, 255, 255, 255, 251, 254, 255, 255, 255,
    255, 255, 255, 255, 255, 245, 251, 254, 255, 255, 255, 255, 255, 255, 255, 255, 253, 253, 254, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 251, 253, 255, 255, 255, 255, 255, 255, 255, 255, 252, 253, 254, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 254, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 252, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 249, 255, 254, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 254, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 253, 255, 255, 255, 255, 255, 255, 255, 255, 250, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 254,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255
};

/* Probabilities in the modes of sub-blocks: (mode above, mode to the left, each) (11.5). */
static const uint8_t g4_vp8_sub_modes[900] = {
    231, 120, 48,  89,  115, 113, 120, 152, 112, 152, 179, 64,  126, 170, 118, 46,  70,  95,  175, 69,  143, 80,  85,
    82,  72,  155, 103, 56,  58,  10,  171, 218, 189, 17,  13,  152, 144, 71,  10,  38,  171, 213, 144, 34,  26,  114,
    26,  17,  163, 44,  195, 21,  10,  173, 121, 24,  80,  195, 26,  62,  44,  64,  85,  170, 46,  55,  19,  136, 160,
    33,  206, 71,  63,  20,  8,   114, 114, 208, 12,  9,   226, 81,  40,  11,  96,  182, 84,  29,  16,  36,  134, 183,
    89,  137, 98,  101, 106, 165, 148, 72,  187, 100, 130, 157, 111, 32,  75,  80,  66,  102, 167, 99,  74,  62,  40,
    234, 128, 41,  53,  9,   178, 241, 141, 26,  8,   107, 104, 79,  12,  27,  217, 255, 87,  17,  7,   74,  43,  26,
    146, 73,  166, 49,  23,  157, 65,  38,  105, 160, 51,  52,  31,  115, 128, 87,  68,  71,  44,  114, 51,  15,  186,
    23,  47,  41,  14,  110, 182, 183, 21,  17,  194, 66,  45,  25,  102, 197, 189, 23,  18,  22,  88,  88,  147, 150,
    42,  46,  45,  196, 205, 43,  97,  183, 117, 85,  38,  35,  179, 61,  39,  53,  200, 87,  26,  21,  43,  232, 171,
    56,  34,  51,  104, 114, 102, 29,  93,  77,  107, 54,  32,  26,  51,  1,   81,  43,  31,  39,  28,  85,  171, 58,
    165, 90,  98,  64,  34,  22,  116, 206, 23,  34,  43,  166, 73,  68,  25,  106, 22,  64,  171, 36,  225, 114, 34,
    19,  21,  102, 132, 188, 16,  76,  124, 62,  18,  78,  95,  85,  57,  50,  48,  51,  193, 101, 35,  159, 215, 111,
    89,  46,  111, 60,  148, 31,  172, 219, 228, 21,  18,  111, 112, 113, 77,  85,  179, 255, 38,  120, 114, 40,  42,
    1,   196, 245, 209, 10,  25,  109, 100, 80,  8,   43,  154, 1,   51,  26,  71,  88,  43,  29,  140, 166, 213, 37,
    43,  154, 61,  63,  30,  155, 67,  45,  68,  1,   209, 142, 78,  78,  16,  255, 128, 34,  197, 171, 41,  40,  5,
    102, 211, 183, 4,   1,   221, 51,  50,  17,  168, 209, 192, 23,  25,  82,  125, 98,  42,  88,  104, 85,  117, 175,
    82,  95,  84,  53,  89,  128, 100, 113, 101, 45,  75,  79,  123, 47,  51,  128, 81,  171, 1,   57,  17,  5,   71,
    102, 57,  53,  41,  49,  115, 21,  2,   10,  102, 255, 166, 23,  6,   38,  33,  13,  121, 57,  73,  26,  1,   85,
    41,  10,  67,  138, 77,  110, 90,  47,  114, 101, 29,  16,  10,  85,  128, 101, 196, 26,  57,  18,  10,  102, 102,
    213, 34,  20,  43,  117, 20,  15,  36,  163, 128, 68,  1,   26,  138, 31,  36,  171, 27,  166, 38,  44,  229, 67,
    87,  58,  169, 82,  115, 26,  59,  179, 63,  59,  90,  180, 59,  166, 93,  73,  154, 40,  40,  21,  116, 143, 209,
    34,  39,  175, 57,  46,  22,  24,  128, 1,   54,  17,  37,  47,  15,  16,  183, 34,  223, 49,  45,  183, 46,  17,
    33,  183, 6,   98,  15,  32,  183, 65,  32,  73,  115, 28,  128, 23,  128, 205, 40,  3,   9,   115, 51,  192, 18,
    6,   223, 87,  37,  9,   115, 59,  77,  64,  21,  47,  104, 55,  44,  218, 9,   54,  53,  130, 226, 64,  90,  70,
    205, 40,  41,  23,  26,  57,  54,  57,  112, 184, 5,   41,  38,  166, 213, 30,  34,  26,  133, 152, 116, 10,  32,
    134, 75,  32,  12,  51,  192, 255, 160, 43,  51,  39,  19,  53,  221, 26,  114, 32,  73,  255, 31,  9,   65,  234,
    2,   15,  1,   118, 73,  88,  31,  35,  67,  102, 85,  55,  186, 85,  56,  21,  23,  111, 59,  205, 45,  37,  192,
    55,  38,  70,  124, 73,  102, 1,   34,  98,  102, 61,  71,  37,  34,  53,  31,  243, 192, 69,  60,  71,  38,  73,
    119, 28,  222, 37,  68,  45,  128, 34,  1,   47,  11,  245, 171, 62,  17,  19,  70,  146, 85,  55,  62,  70,  75,
    15,  9,   9,   64,  255, 184, 119, 16,  37,  43,  37,  154, 100, 163, 85,  160, 1,   63,  9,   92,  136, 28,  64,
    32,  201, 85,  86,  6,   28,  5,   64,  255, 25,  248, 1,   56,  8,   17,  132, 137, 255, 55,  116, 128, 58,  15,
    20,  82,  135, 57,  26,  121, 40,  164, 50,  31,  137, 154, 133, 25,  35,  218, 51,  103, 44,  131, 131, 123, 31,
    6,   158, 86,  40,  64,  135, 148, 224, 45,  183, 128, 22,  26,  17,  131, 240, 154, 14,  1,   209, 83,  12,  13,
    54,  192, 255, 68,  47,  28,  45,  16,  21,  91,  64,  222, 7,   1,   197, 56,  21,  39,  155, 60,  138, 23,  102,
    213, 85,  26,  85,  85,  128, 128, 32,  146, 171, 18,  11,  7,   63,  144, 171, 4,   4,   246, 35,  27,  10,  146,
    174, 171, 12,  26,  128, 190, 80,  35,  99,  180, 80,  126, 54,  45,  85,  126, 47,  87,  176, 51,  41,  20,  32,
    101, 75,  128, 139, 118, 146, 116, 128, 85,  56,  41,  15,  176, 236, 85,  37,  9,   62,  146, 36,  19,  30,  171,
    255, 97,  27,  20,  71,  30,  17,  119, 118, 255, 17,  18,  138, 101, 38,  60,  138, 55,  70,  43,  26,  142, 138,
    45,  61,  62,  219, 1,   81,  188, 64,  32,  41,  20,  117, 151, 142, 20,  21,  163, 112, 19,  12,  61,  195, 128,
    48,  4,   24
};

/* Steps of quantization (14.1). */
static const uint8_t g4_vp8_dc[128] = {
    4,   5,   6,   7,   8,   9,   10,  10,  11,  12,  13,  14,  15,  16,  17,  17,  18,  19,  20,  20,  21,  21,
    22,  22,  23,  23,  24,  25,  25,  26,  27,  28,  29,  30,  31,  32,  33,  34,  35,  36,  37,  37,  38,  39,
    40,  41,  42,  43,  44,  45,  46,  46,  47,  48,  49,  50,  51,  52,  53,  54,  55,  56,  57,  58,  59,  60,
    61,  62,  63,  64,  65,  66,  67,  68,  69,  70,  71,  72,  73,  74,  75,  76,  76,  77,  78,  79,  80,  81,
    82,  83,  84,  85,  86,  87,  88,  89,  91,  93,  95,  96,  98,  100, 101, 102, 104, 106, 108, 110, 112, 114,
    116, 118, 122, 124, 126, 128, 130, 132, 134, 136, 138, 140, 143, 145, 148, 151, 154, 157
};
static const uint16_t g4_vp8_ac[128] = {
    4,   5,   6,   7,   8,   9,   10,  11,  12,  13,  14,  15,  16,  17,  18,  19,  20,  21,  22,  23,  24,  25,
    26,  27,  28,  29,  30,  31,  32,  33,  34,  35,  36,  37,  38,  39,  40,  41,  42,  43,  44,  45,  46,  47,
    48,  49,  50,  51,  52,  53,  54,  55,  56,  57,  58,  60,  62,  64,  66,  68,  70,  72,  74,  76,  78,  80,
    82,  84,  86,  88,  90,  92,  94,  96,  98,  100, 102, 104, 106, 108, 110, 112, 114, 116, 119, 122, 125, 128,
    131, 134, 137, 140, 143, 146, 149, 152, 155, 158, 161, 164, 167, 170, 173, 177, 181, 185, 189, 193, 197, 201,
    205, 209, 213, 217, 221, 225, 229, 234, 239, 245, 249, 254, 259, 264, 269, 274, 279, 284
};

/* ---- Bits (RFC 6386, 7) ------------------------------------------------------------------------ */

static void g4_vp8_fill(g4_vp8_bits *b)
{
    if (b->end - b->p >= 8) {
        b->value = b->value << 56 | (uint64_t)g4_be32(b->p) << 24 | g4_be32(b->p + 4) >> 8;
        b->p += 7;
        b->n += 56;
        return;
    }
    b->is_over |= b->p == b->end;
    b->value = b->value << 8 | (b->p < b->end ? *b->p++ : 0);
    b->n += 8;
}

static g4_vp8_bits g4_vp8_open(const uint8_t *p, size_t n)
{
    g4_vp8_bits b = { p, p + n, 0, -8, 255, 0 };
    g4_vp8_fill(&b);
    return b;
}

/* The next bit, which is 0 with that probability of 256. */
static inline uint32_t g4_vp8_get(g4_vp8_bits *b, uint32_t probability)
{
    if (b->n < 0) g4_vp8_fill(b);
    const uint32_t split = 1 + ((b->range - 1) * probability >> 8);
    const uint64_t edge = (uint64_t)split << b->n;
    const uint32_t bit = b->value >= edge;
    b->range = bit ? b->range - split : split;
    b->value -= bit ? edge : 0;
    const uint32_t shift = g4_vp8_shift[b->range];
    b->range <<= shift;
    b->n -= (int)shift;
    return bit;
}

static int g4_vp8_number(g4_vp8_bits *b, int n) /* of n bits */
{
    int v = 0;
    while (n-- > 0) v = 2 * v + (int)g4_vp8_get(b, 128);
    return v;
}

static int g4_vp8_flag(g4_vp8_bits *b) { return (int)g4_vp8_get(b, 128); }

/* A number with a sign behind it, if it is there; else 0. */
static int g4_vp8_signed(g4_vp8_bits *b, int n)
{
    if (!g4_vp8_flag(b)) return 0;
    const int v = g4_vp8_number(b, n);
    return g4_vp8_flag(b) ? -v : v;
}

/* ---- Head (RFC 6386, 9) ------------------------------------------------------------------------ */

static void g4_vp8_read_segments(g4_vp8 *v)
{
    g4_vp8_bits *const b = &v->head;
    memset(v->map, 255, sizeof v->map);
    v->has_segments = g4_vp8_flag(b);
    if (!v->has_segments) return;
    v->has_map = g4_vp8_flag(b);
    if (g4_vp8_flag(b)) {
        v->is_absolute = g4_vp8_flag(b);
        for (int i = 0; i < G4_VP8_SEGMENTS; i++) v->quantizer[i] = g4_vp8_signed(b, 7);
        for (int i = 0; i < G4_VP8_SEGMENTS; i++) v->level[i] = g4_vp8_signed(b, 6);
    }
    for (int i = 0; v->has_map && i < 3; i++)
        if (g4_vp8_flag(b)) v->map[i] = (uint8_t)g4_vp8_number(b, 8);
}

/* Of the numbers that are added to a level, those count that hold for key frames and for modes of sub-blocks. */
static void g4_vp8_read_filter(g4_vp8 *v)
{
    g4_vp8_bits *const b = &v->head;
    v->is_simple = g4_vp8_flag(b);
    v->filter_level = g4_vp8_number(b, 6);
    v->sharpness = g4_vp8_number(b, 3);
    v->has_deltas = g4_vp8_flag(b);
    v->is_filtered = v->filter_level > 0; /* else the segments' levels do not matter either */
    if (!v->has_deltas || !g4_vp8_flag(b)) return;
    int delta[8] = { 0 };
    for (int i = 0; i < 8; i++) delta[i] = g4_vp8_signed(b, 6);
    v->delta_intra = delta[0];
    v->delta_sub = delta[4];
}

/* The streams of coefficients, and before them their sizes: what says more than there is has what is there. */
static const char *g4_vp8_read_parts(g4_vp8 *v, const uint8_t *p, size_t n)
{
    v->n_parts = 1u << g4_vp8_number(&v->head, 2);
    const size_t sizes = 3 * (size_t)(v->n_parts - 1);
    if (n <= sizes) return g4_vp8_short;
    const uint8_t *size = p;
    p += sizes;
    n -= sizes;
    for (uint32_t i = 0; i < v->n_parts; i++, size += 3) {
        const size_t said = i + 1 == v->n_parts ? n : g4_le16(size) | (size_t)size[2] << 16;
        const size_t bytes = g4_min_size(said, n);
        v->part[i] = g4_vp8_open(p, bytes);
        p += bytes;
        n -= bytes;
        if (i + 1 == v->n_parts && bytes == 0) return g4_vp8_short;
    }
    return NULL;
}

static int g4_vp8_clip(int v, int max) { return v < 0 ? 0 : v > max ? max : v; }

static void g4_vp8_read_steps(g4_vp8 *v)
{
    g4_vp8_bits *const b = &v->head;
    const int base = g4_vp8_number(b, 7);
    int delta[5]; /* of Y's DC, Y2's DC and others, U and V's DC and others */
    for (int i = 0; i < 5; i++) delta[i] = g4_vp8_signed(b, 4);
    for (int i = 0; i < G4_VP8_SEGMENTS; i++) {
        const int q = !v->has_segments ? base : v->quantizer[i] + (v->is_absolute ? 0 : base);
        g4_vp8_steps *const s = &v->steps[i];
        s->y[0] = g4_vp8_dc[g4_vp8_clip(q + delta[0], 127)];
        s->y[1] = g4_vp8_ac[g4_vp8_clip(q, 127)];
        s->y2[0] = (uint16_t)(2 * g4_vp8_dc[g4_vp8_clip(q + delta[1], 127)]);
        s->y2[1] = (uint16_t)(g4_vp8_ac[g4_vp8_clip(q + delta[2], 127)] * 155 / 100);
        if (s->y2[1] < 8) s->y2[1] = 8;
        s->uv[0] = g4_vp8_dc[g4_vp8_clip(q + delta[3], 117)];
        s->uv[1] = g4_vp8_ac[g4_vp8_clip(q + delta[4], 127)];
    }
}

/* The level of a segment to what the filter compares (15.2). */
static g4_vp8_strength g4_vp8_strength_of(const g4_vp8 *v, int segment, int is_sub)
{
    int level = v->has_segments ? v->level[segment] + (v->is_absolute ? 0 : v->filter_level) : v->filter_level;
    if (v->has_deltas) level += v->delta_intra + (is_sub ? v->delta_sub : 0);
    level = g4_vp8_clip(level, 63);
    int inner = level >> (v->sharpness > 4 ? 2 : v->sharpness > 0 ? 1 : 0);
    if (v->sharpness > 0) inner = g4_vp8_clip(inner, 9 - v->sharpness);
    if (inner < 1) inner = 1;
    if (level == 0) return (g4_vp8_strength) { 0, 0, 0 };
    return (g4_vp8_strength) { (uint8_t)(2 * level + inner), (uint8_t)inner, level >= 40 ? 2 : level >= 15 ? 1 : 0 };
}

static void g4_vp8_read_probs(g4_vp8 *v)
{
    const uint8_t *of_new = g4_vp8_update, *old = g4_vp8_default;
    uint8_t *out = (uint8_t *)v->probs;
    for (size_t i = 0; i < sizeof v->probs; i++)
        out[i] = g4_vp8_get(&v->head, of_new[i]) ? (uint8_t)g4_vp8_number(&v->head, 8) : old[i];
    v->has_skip = g4_vp8_flag(&v->head);
    if (v->has_skip) v->skip = (uint8_t)g4_vp8_number(&v->head, 8);
}

/* All before the macroblocks: 3 bytes that say how many there are in the first stream, 7 of the size, that stream. */
static const char *g4_vp8_read_head(g4_vp8 *v, const uint8_t *data, size_t size)
{
    const uint32_t tag = size < 10 ? 0 : g4_le16(data) | (uint32_t)data[2] << 16;
    const size_t n = tag >> 5;
    if (size < 10 || n > size - 10) return g4_vp8_short;
    if ((tag & 1) || (tag >> 1 & 7) > 3 || !(tag >> 4 & 1)) return "no key frame that is shown";
    v->head = g4_vp8_open(data + 10, n);
    g4_vp8_number(&v->head, 2); /* colour space and clamping, which libwebp leaves aside */
    g4_vp8_read_segments(v);
    g4_vp8_read_filter(v);
    if (v->head.is_over) return g4_vp8_short;
    const char *wrong = g4_vp8_read_parts(v, data + 10 + n, size - 10 - n);
    if (wrong) return wrong;
    g4_vp8_read_steps(v);
    g4_vp8_flag(&v->head); /* whether the probabilities hold for later frames, too */
    g4_vp8_read_probs(v);
    for (int i = 0; i < 2 * G4_VP8_SEGMENTS; i++) v->strength[i / 2][i % 2] = g4_vp8_strength_of(v, i / 2, i % 2);
    return NULL;
}

/* ---- Modes (RFC 6386, 11) ---------------------------------------------------------------------- */

typedef struct {
    int segment, is_skipped, is_sub;
    uint8_t y[16], uv; /* y: of each sub-block; of the whole in y[0] */
} g4_vp8_modes;

static uint8_t g4_vp8_read_sub_mode(g4_vp8_bits *b, const uint8_t *probs)
{
    static const int8_t tree[18] = { 0, 2, -1, 4, -2, 6, 8, 12, -3, 10, -5, -6, -4, 14, -7, 16, -8, -9 };
    int at = 0;
    do at = tree[at + (int)g4_vp8_get(b, probs[at >> 1])];
    while (at > 0);
    return (uint8_t)-at;
}

static g4_vp8_modes g4_vp8_read_modes(g4_vp8 *v, g4_vp8_column *c)
{
    g4_vp8_modes m = { 0 };
    g4_vp8_bits *const b = &v->head;
    if (v->has_map)
        m.segment = (int)(g4_vp8_get(b, v->map[0]) ? 2 + g4_vp8_get(b, v->map[2]) : g4_vp8_get(b, v->map[1]));
    if (v->has_skip) m.is_skipped = (int)g4_vp8_get(b, v->skip);
    m.is_sub = !g4_vp8_get(b, 145);
    for (int i = 0; m.is_sub && i < 16; i++) {
        uint8_t *const above = &c->modes[i % 4], *const left = &v->left_modes[i / 4];
        m.y[i] = *above = *left = g4_vp8_read_sub_mode(b, g4_vp8_sub_modes + 9 * (10 * *above + *left));
    }
    if (!m.is_sub) {
        if (g4_vp8_get(b, 156))
            m.y[0] = g4_vp8_get(b, 128) ? G4_VP8_TM : G4_VP8_H;
        else
            m.y[0] = g4_vp8_get(b, 163) ? G4_VP8_V : G4_VP8_DC;
        memset(c->modes, m.y[0], 4);
        memset(v->left_modes, m.y[0], 4);
    }
    m.uv = !g4_vp8_get(b, 142) ? G4_VP8_DC : !g4_vp8_get(b, 114) ? G4_VP8_V : g4_vp8_get(b, 183) ? G4_VP8_TM : G4_VP8_H;
    return m;
}

/* ---- Coefficients (RFC 6386, 13) --------------------------------------------------------------- */

/* The amount of a coefficient that is 2 or more. */
static int g4_vp8_large(g4_vp8_bits *b, const uint8_t *p)
{
    static const uint8_t rest[4][12] = { { 173, 148, 140 },
                                         { 176, 155, 140, 135 },
                                         { 180, 157, 141, 134, 130 },
                                         { 254, 254, 243, 230, 196, 177, 153, 140, 133, 130, 129 } };
    if (!g4_vp8_get(b, p[3])) return !g4_vp8_get(b, p[4]) ? 2 : 3 + (int)g4_vp8_get(b, p[5]);
    if (!g4_vp8_get(b, p[6])) {
        if (!g4_vp8_get(b, p[7])) return 5 + (int)g4_vp8_get(b, 159);
        const int high = (int)g4_vp8_get(b, 165);
        return 7 + 2 * high + (int)g4_vp8_get(b, 145);
    }
    const uint32_t high = g4_vp8_get(b, p[8]), kind = 2 * high + g4_vp8_get(b, p[9 + high]);
    int v = 0;
    for (const uint8_t *r = rest[kind]; *r; r++) v = 2 * v + (int)g4_vp8_get(b, *r);
    return v + 3 + (8 << kind);
}

/* The coefficients of a block from number `first` on, to their places. Returns how many places there are up to the last
 * one that is coded. seen: how many blocks beside it had some. Products wrap, as those of hostile files do in libwebp.
 */
static int g4_vp8_coefs(g4_vp8_bits *bits, const uint8_t *probs, int seen, const uint16_t *step, int first,
                        int16_t *out)
{
    enum { BAND = G4_VP8_SEEN * G4_VP8_PROBS };
    static const uint8_t band[17] = { 0, 1, 2, 3, 6, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6, 7, 0 };
    static const uint8_t place[16] = { 0, 1, 4, 8, 5, 2, 3, 6, 9, 12, 13, 10, 7, 11, 14, 15 };
    g4_vp8_bits b = *bits; /* in registers */
    const uint8_t *p = probs + BAND * band[first] + G4_VP8_PROBS * seen;
    int n = first;
    while (n < 16 && g4_vp8_get(&b, p[0])) {
        while (n < 16 && !g4_vp8_get(&b, p[1])) p = probs + BAND * band[++n]; /* no end stands behind a zero */
        if (n == 16) break;
        const int is_one = !g4_vp8_get(&b, p[2]), v = is_one ? 1 : g4_vp8_large(&b, p);
        out[place[n]] = g4_wrap_16((g4_vp8_get(&b, 128) ? -v : v) * step[n > 0]);
        p = probs + BAND * band[++n] + G4_VP8_PROBS * (is_one ? 1 : 2);
    }
    *bits = b;
    return n;
}

static uint8_t g4_vp8_amount(int n, int dc) { return n > 3 ? G4_VP8_FULL : n > 1 ? G4_VP8_THREE : dc != 0; }

/* The Walsh-Hadamard transform of Y2 to the DC of 16 blocks (14.3). */
static void g4_vp8_spread(const int16_t *in, int16_t *out)
{
    int t[16];
    for (int i = 0; i < 4; i++) {
        const int a = in[i] + in[12 + i], b = in[4 + i] + in[8 + i], c = in[4 + i] - in[8 + i], d = in[i] - in[12 + i];
        t[i] = a + b;
        t[4 + i] = d + c;
        t[8 + i] = a - b;
        t[12 + i] = d - c;
    }
    for (int i = 0; i < 4; i++, out += 4 * 16) {
        const int *const r = t + 4 * i, a = r[0] + 3 + r[3], b = r[1] + r[2], c = r[1] - r[2], d = r[0] + 3 - r[3];
        out[0] = g4_wrap_16((a + b) >> 3);
        out[16] = g4_wrap_16((d + c) >> 3);
        out[32] = g4_wrap_16((a - b) >> 3);
        out[48] = g4_wrap_16((d - c) >> 3);
    }
}

/* n x n blocks of a plane, whose bits in `set` begin at `bit`, the left one or the upper one first. */
static void g4_vp8_read_blocks(g4_vp8 *v, g4_vp8_bits *b, g4_vp8_column *c, int kind, const uint16_t *step, int n,
                               int bit, int from)
{
    const int first = kind == G4_VP8_Y_REST;
    for (int i = 0; i < n * n; i++) {
        int16_t *const coef = v->coef + 16 * (from + i);
        const int above = bit + i % n, left = bit + i / n;
        const int end =
            g4_vp8_coefs(b, v->probs[kind], (c->set >> above & 1) + (v->left_set >> left & 1), step, first, coef);
        const unsigned is_set = end > first;
        c->set = (uint16_t)((c->set & ~(1u << above)) | is_set << above);
        v->left_set = (uint16_t)((v->left_set & ~(1u << left)) | is_set << left);
        v->amount[from + i] = g4_vp8_amount(end, coef[0]);
    }
}

/* Of U or V, libwebp transforms all four blocks in one way. */
static void g4_vp8_even_out(uint8_t *amount)
{
    int is_more = 0;
    for (int i = 0; i < 4; i++) is_more |= amount[i] > G4_VP8_ONLY_DC;
    for (int i = 0; is_more && i < 4; i++)
        if (amount[i]) amount[i] = G4_VP8_FULL;
}

#define G4_VP8_Y2_BIT 8

/* The coefficients of a macroblock. 0: there are none that matter. */
static int g4_vp8_read_residue(g4_vp8 *v, g4_vp8_bits *b, g4_vp8_column *c, const g4_vp8_modes *m)
{
    const g4_vp8_steps *const steps = &v->steps[m->segment];
    memset(v->coef, 0, sizeof v->coef);
    if (!m->is_sub) {
        int16_t y2[16] = { 0 };
        const int seen = (c->set >> G4_VP8_Y2_BIT & 1) + (v->left_set >> G4_VP8_Y2_BIT & 1);
        const int n = g4_vp8_coefs(b, v->probs[G4_VP8_Y2], seen, steps->y2, 0, y2);
        const unsigned is_set = (unsigned)(n > 0) << G4_VP8_Y2_BIT;
        c->set = (uint16_t)((c->set & ~(1u << G4_VP8_Y2_BIT)) | is_set);
        v->left_set = (uint16_t)((v->left_set & ~(1u << G4_VP8_Y2_BIT)) | is_set);
        if (n > 1)
            g4_vp8_spread(y2, v->coef);
        else
            for (int i = 0; i < 16; i++) v->coef[16 * i] = (int16_t)((y2[0] + 3) >> 3);
    }
    g4_vp8_read_blocks(v, b, c, m->is_sub ? G4_VP8_Y_WHOLE : G4_VP8_Y_REST, steps->y, 4, 0, 0);
    g4_vp8_read_blocks(v, b, c, G4_VP8_UV, steps->uv, 2, 4, 16);
    g4_vp8_read_blocks(v, b, c, G4_VP8_UV, steps->uv, 2, 6, 20);
    g4_vp8_even_out(v->amount + 16);
    g4_vp8_even_out(v->amount + 20);
    int is_any = 0;
    for (int i = 0; i < 24; i++) is_any |= v->amount[i];
    return is_any != 0;
}

/* ---- Inverse DCT (RFC 6386, 14.4) --------------------------------------------------------------- */

/* By the square root of 2 times the cosine and the sine of a sixteenth of a turn, of 16 fraction bits. */
static inline int g4_vp8_cosine(int v) { return v + (v * 20091 >> 16); }
static inline int g4_vp8_sine(int v) { return v * 35468 >> 16; }

static inline void g4_vp8_add(uint8_t *p, int v) { *p = g4_clamp_u8(*p + (v >> 3)); }

/* Sums of 16 bits wrap where there are all coefficients, as in libwebp's vector code, and else do not, as there. */
static void g4_vp8_add_full(const int16_t *in, uint8_t *p)
{
    int16_t t[16];
    for (int i = 0; i < 4; i++) {
        const int a = in[i] + in[8 + i], b = in[i] - in[8 + i];
        const int c = g4_vp8_sine(in[4 + i]) - g4_vp8_cosine(in[12 + i]);
        const int d = g4_vp8_cosine(in[4 + i]) + g4_vp8_sine(in[12 + i]);
        t[i] = g4_wrap_16(a + d);
        t[4 + i] = g4_wrap_16(b + c);
        t[8 + i] = g4_wrap_16(b - c);
        t[12 + i] = g4_wrap_16(a - d);
    }
    for (int i = 0; i < 4; i++, p += G4_VP8_WIDE) {
        const int16_t *const r = t + 4 * i;
        const int a = r[0] + 4 + r[2], b = r[0] + 4 - r[2];
        const int c = g4_vp8_sine(r[1]) - g4_vp8_cosine(r[3]), d = g4_vp8_cosine(r[1]) + g4_vp8_sine(r[3]);
        g4_vp8_add(p, g4_wrap_16(a + d));
        g4_vp8_add(p + 1, g4_wrap_16(b + c));
        g4_vp8_add(p + 2, g4_wrap_16(b - c));
        g4_vp8_add(p + 3, g4_wrap_16(a - d));
    }
}

static void g4_vp8_add_three(const int16_t *in, uint8_t *p) /* only the first, and those right of and below it */
{
    const int a = in[0] + 4, c = g4_vp8_sine(in[4]), d = g4_vp8_cosine(in[4]);
    const int rows[4] = { a + d, a + c, a - c, a - d };
    for (int i = 0; i < 4; i++, p += G4_VP8_WIDE) {
        g4_vp8_add(p, rows[i] + g4_vp8_cosine(in[1]));
        g4_vp8_add(p + 1, rows[i] + g4_vp8_sine(in[1]));
        g4_vp8_add(p + 2, rows[i] - g4_vp8_sine(in[1]));
        g4_vp8_add(p + 3, rows[i] - g4_vp8_cosine(in[1]));
    }
}

static void g4_vp8_add_residue(int amount, const int16_t *in, uint8_t *p)
{
    if (amount == G4_VP8_FULL) g4_vp8_add_full(in, p);
    if (amount == G4_VP8_THREE) g4_vp8_add_three(in, p);
    for (int i = 0; amount == G4_VP8_ONLY_DC && i < 16; i++) g4_vp8_add(p + i / 4 * G4_VP8_WIDE + i % 4, in[0] + 4);
}

/* ---- Guesses (RFC 6386, 12) -------------------------------------------------------------------- */

/* n x n pixels: left + above - corner. */
static void g4_vp8_guess_slope(uint8_t *p, int n)
{
    const uint8_t *const above = p - G4_VP8_WIDE;
    for (int y = 0; y < n; y++, p += G4_VP8_WIDE) {
        const int off = p[-1] - above[-1];
        for (int x = 0; x < n; x++) p[x] = g4_clamp_u8(above[x] + off);
    }
}

/* The mean of what stands above and to the left, as far as that is inside of the picture. log: of n. */
static void g4_vp8_guess_mean(uint8_t *p, int log, int has_above, int has_left)
{
    const int n = 1 << log;
    int sum = 0, level = 128;
    for (int i = 0; i < n; i++) sum += (has_above ? p[i - G4_VP8_WIDE] : 0) + (has_left ? p[i * G4_VP8_WIDE - 1] : 0);
    if (has_above && has_left)
        level = (sum + n) >> (log + 1);
    else if (has_above || has_left)
        level = (sum + n / 2) >> log;
    for (int y = 0; y < n; y++) memset(p + y * G4_VP8_WIDE, level, (size_t)n);
}

static void g4_vp8_guess(int mode, uint8_t *p, int log, int has_above, int has_left)
{
    const int n = 1 << log;
    if (mode == G4_VP8_DC) g4_vp8_guess_mean(p, log, has_above, has_left);
    if (mode == G4_VP8_TM) g4_vp8_guess_slope(p, n);
    for (int y = 0; mode == G4_VP8_V && y < n; y++) memcpy(p + y * G4_VP8_WIDE, p - G4_VP8_WIDE, (size_t)n);
    for (int y = 0; mode == G4_VP8_H && y < n; y++) memset(p + y * G4_VP8_WIDE, p[y * G4_VP8_WIDE - 1], (size_t)n);
}

/* A sub-block. The pixels around it make a line, from the lowest one at its left up, then to the right, to the fourth
 * that stands behind those above it. All but two modes take means of two or of three neighbours in this line. */
static void g4_vp8_guess_sub(int mode, uint8_t *p)
{
    enum { AROUND = 13 };
    static const uint8_t source[8][16] = { /* up to 15: of pixels i - 1 and i, from 16 on: around pixel i - 16 */
                                           { 21, 22, 23, 24, 21, 22, 23, 24, 21, 22, 23, 24, 21, 22, 23, 24 },
                                           { 19, 19, 19, 19, 18, 18, 18, 18, 17, 17, 17, 17, 16, 16, 16, 16 },
                                           { 22, 23, 24, 25, 23, 24, 25, 26, 24, 25, 26, 27, 25, 26, 27, 28 },
                                           { 20, 21, 22, 23, 19, 20, 21, 22, 18, 19, 20, 21, 17, 18, 19, 20 },
                                           { 5, 6, 7, 8, 20, 21, 22, 23, 19, 5, 6, 7, 18, 20, 21, 22 },
                                           { 6, 7, 8, 9, 22, 23, 24, 25, 7, 8, 9, 26, 23, 24, 25, 27 },
                                           { 4, 20, 21, 22, 3, 19, 4, 20, 2, 18, 3, 19, 1, 17, 2, 18 },
                                           { 3, 18, 2, 17, 2, 17, 1, 16, 1, 16, 0, 0, 0, 0, 0, 0 }
    };
    if (mode == G4_VP8_DC) {
        g4_vp8_guess_mean(p, 2, 1, 1);
        return;
    }
    if (mode == G4_VP8_TM) {
        g4_vp8_guess_slope(p, 4);
        return;
    }
    uint8_t line[AROUND + 5] = { 0 }, mean[32]; /* line: its ends are there twice */
    for (int i = 0; i < 4; i++) line[1 + i] = p[(3 - i) * G4_VP8_WIDE - 1];
    line[0] = line[1];
    memcpy(line + 5, p - G4_VP8_WIDE - 1, 9);
    line[AROUND + 1] = line[AROUND];
    for (int i = 0; i < 16; i++) {
        mean[i] = (uint8_t)((line[i] + line[i + 1] + 1) >> 1);
        mean[16 + i] = (uint8_t)((line[i] + 2 * line[i + 1] + line[i + 2] + 2) >> 2);
    }
    const uint8_t *const from = source[mode - G4_VP8_V];
    for (int i = 0; i < 16; i++) p[i / 4 * G4_VP8_WIDE + i % 4] = mean[from[i]];
}

/* ---- Macroblocks ------------------------------------------------------------------------------- */

/* n x n pixels get what stands around them: above, from the row before, and to the left, from the block before. */
static void g4_vp8_surround(uint8_t *plane, size_t n, const uint8_t *above, uint32_t x, uint32_t y)
{
    for (size_t i = 0; i <= n; i++)
        plane[i * G4_VP8_WIDE + 7] = x > 0 ? plane[i * G4_VP8_WIDE + 7 + n] : i == 0 && y == 0 ? 127 : 129;
    if (y > 0)
        memcpy(plane + 8, above, n);
    else
        memset(plane + 8, 127, n);
}

/* The four pixels behind the row above, which the lower sub-blocks at the right side take for theirs, too. */
static void g4_vp8_put_corner(g4_vp8 *v, uint32_t x, uint32_t y)
{
    uint8_t corner[4] = { 127, 127, 127, 127 };
    if (y > 0 && x + 1 < v->mb_w)
        memcpy(corner, v->column[x + 1].y, 4);
    else if (y > 0)
        memset(corner, v->column[x].y[15], 4);
    for (size_t i = 0; i < 4; i++) memcpy(v->block.y + 4 * i * G4_VP8_WIDE + 8 + 16, corner, 4);
}

static void g4_vp8_build(g4_vp8 *v, const g4_vp8_modes *m, uint32_t x, uint32_t y)
{
    uint8_t *const luma = v->block.y + G4_VP8_AT, *const u = v->block.u + G4_VP8_AT, *const w = v->block.v + G4_VP8_AT;
    const g4_vp8_column *const c = &v->column[x];
    g4_vp8_surround(v->block.y, 16, c->y, x, y);
    g4_vp8_surround(v->block.u, 8, c->u, x, y);
    g4_vp8_surround(v->block.v, 8, c->v, x, y);
    if (m->is_sub)
        g4_vp8_put_corner(v, x, y);
    else
        g4_vp8_guess(m->y[0], luma, 4, y > 0, x > 0);
    for (int i = 0; i < 16; i++) {
        uint8_t *const p = luma + i / 4 * 4 * G4_VP8_WIDE + i % 4 * 4;
        if (m->is_sub) g4_vp8_guess_sub(m->y[i], p);
        g4_vp8_add_residue(v->amount[i], v->coef + 16 * i, p);
    }
    g4_vp8_guess(m->uv, u, 3, y > 0, x > 0);
    g4_vp8_guess(m->uv, w, 3, y > 0, x > 0);
    for (int i = 0; i < 8; i++)
        g4_vp8_add_residue(v->amount[16 + i], v->coef + 16 * (16 + i),
                           (i < 4 ? u : w) + i % 4 / 2 * 4 * G4_VP8_WIDE + i % 2 * 4);
}

/* Where the macroblock stands in the planes. */
static g4_vp8_planes g4_vp8_place(const g4_vp8 *v, uint32_t x, uint32_t y)
{
    const size_t stride = v->planes.stride, half = 8 * (size_t)y * (stride / 2) + 8 * (size_t)x;
    return (g4_vp8_planes) { v->planes.y + 16 * (size_t)y * stride + 16 * (size_t)x, v->planes.u + half,
                             v->planes.v + half, stride };
}

/* The pixels to the planes, and the last row to where those below find it. */
static void g4_vp8_put(g4_vp8 *v, uint32_t x, uint32_t y)
{
    const g4_vp8_planes to = g4_vp8_place(v, x, y);
    const g4_vp8_block *const b = &v->block;
    g4_vp8_column *const c = &v->column[x];
    for (size_t i = 0; i < 16; i++) memcpy(to.y + i * to.stride, b->y + G4_VP8_AT + i * G4_VP8_WIDE, 16);
    for (size_t i = 0; i < 8; i++) {
        memcpy(to.u + i * (to.stride / 2), b->u + G4_VP8_AT + i * G4_VP8_WIDE, 8);
        memcpy(to.v + i * (to.stride / 2), b->v + G4_VP8_AT + i * G4_VP8_WIDE, 8);
    }
    memcpy(c->y, b->y + G4_VP8_AT + 15 * G4_VP8_WIDE, 16);
    memcpy(c->u, b->u + G4_VP8_AT + 7 * G4_VP8_WIDE, 8);
    memcpy(c->v, b->v + G4_VP8_AT + 7 * G4_VP8_WIDE, 8);
}

static void g4_vp8_read_block(g4_vp8 *v, g4_vp8_bits *part, uint32_t x, uint32_t y)
{
    g4_vp8_column *const c = &v->column[x];
    const g4_vp8_modes m = g4_vp8_read_modes(v, c);
    int has_residue = 0;
    if (!m.is_skipped) {
        has_residue = g4_vp8_read_residue(v, part, c, &m);
    } else { /* of Y2, which modes of sub-blocks do not have, what was before holds */
        const unsigned kept = m.is_sub ? 1u << G4_VP8_Y2_BIT : 0;
        c->set = (uint16_t)(c->set & kept);
        v->left_set = (uint16_t)(v->left_set & kept);
        memset(v->amount, G4_VP8_NONE, sizeof v->amount);
    }
    c->strength = v->strength[m.segment][m.is_sub];
    c->has_inner = (uint8_t)(m.is_sub || has_residue);
    g4_vp8_build(v, &m, x, y);
    g4_vp8_put(v, x, y);
}

/* ---- Loop filter (RFC 6386, 15) ---------------------------------------------------------------- */

/* Four pixels on each side of 16 places of an edge, which lies before v[4]. What changes is chosen for each place by
 * masks and the like, so that compilers make vector code of it. */
typedef struct {
    uint8_t v[8][G4_VP8_LANES];
} g4_vp8_edge;

static inline int g4_vp8_clip_8(int v) { return v < -128 ? -128 : v > 127 ? 127 : v; } /* to a byte with a sign */

static inline int g4_vp8_is_on(int p1, int p0, int q0, int q1, int limit)
{
    return 4 * abs(p0 - q0) + abs(p1 - q1) <= 2 * limit + 1;
}

static void g4_vp8_filter_simple(g4_vp8_edge *e, int limit)
{
    for (int i = 0; i < G4_VP8_LANES; i++) {
        const int p1 = e->v[2][i], p0 = e->v[3][i], q0 = e->v[4][i], q1 = e->v[5][i];
        const int a = g4_vp8_clip_8(3 * (q0 - p0) + g4_vp8_clip_8(p1 - q1));
        const int on = -g4_vp8_is_on(p1, p0, q0, q1, limit);
        e->v[3][i] = g4_clamp_u8(p0 + ((g4_vp8_clip_8(a + 3) >> 3) & on));
        e->v[4][i] = g4_clamp_u8(q0 - ((g4_vp8_clip_8(a + 4) >> 3) & on));
    }
}

/* Which places are filtered, and in which of these the steps are kept: masks. */
static inline void g4_vp8_masks(const g4_vp8_edge *e, const g4_vp8_strength *s, int limit, int16_t *on, int16_t *steep)
{
    const int inner = s->inner, hev = s->hev;
    for (int i = 0; i < G4_VP8_LANES; i++) {
        const int p3 = e->v[0][i], p2 = e->v[1][i], p1 = e->v[2][i], p0 = e->v[3][i];
        const int q0 = e->v[4][i], q1 = e->v[5][i], q2 = e->v[6][i], q3 = e->v[7][i];
        const int is_on = g4_vp8_is_on(p1, p0, q0, q1, limit) & (abs(p3 - p2) <= inner) & (abs(p2 - p1) <= inner) &
                          (abs(p1 - p0) <= inner) & (abs(q1 - q0) <= inner) & (abs(q2 - q1) <= inner) &
                          (abs(q3 - q2) <= inner);
        on[i] = (int16_t)-is_on;
        steep[i] = (int16_t) - ((abs(p1 - p0) > hev) | (abs(q1 - q0) > hev));
    }
}

/* Between macroblocks. */
static void g4_vp8_filter_outer(g4_vp8_edge *e, const g4_vp8_strength *s)
{
    int16_t on[G4_VP8_LANES], steep[G4_VP8_LANES];
    g4_vp8_masks(e, s, s->limit + 4, on, steep);
    for (int i = 0; i < G4_VP8_LANES; i++) {
        const int p2 = e->v[1][i], p1 = e->v[2][i], p0 = e->v[3][i];
        const int q0 = e->v[4][i], q1 = e->v[5][i], q2 = e->v[6][i];
        const int a = g4_vp8_clip_8(3 * (q0 - p0) + g4_vp8_clip_8(p1 - q1)) & on[i], kept = steep[i];
        const int wide = a & ~kept, narrow = a & kept;
        const int a1 = (27 * wide + 63) >> 7, a2 = (18 * wide + 63) >> 7, a3 = (9 * wide + 63) >> 7;
        e->v[1][i] = g4_clamp_u8(p2 + a3);
        e->v[2][i] = g4_clamp_u8(p1 + a2);
        e->v[3][i] = g4_clamp_u8(p0 + a1 + (g4_vp8_clip_8(narrow + 3) >> 3));
        e->v[4][i] = g4_clamp_u8(q0 - a1 - (g4_vp8_clip_8(narrow + 4) >> 3));
        e->v[5][i] = g4_clamp_u8(q1 - a2);
        e->v[6][i] = g4_clamp_u8(q2 - a3);
    }
}

/* Between sub-blocks. */
static void g4_vp8_filter_inner(g4_vp8_edge *e, const g4_vp8_strength *s)
{
    int16_t on[G4_VP8_LANES], steep[G4_VP8_LANES];
    g4_vp8_masks(e, s, s->limit, on, steep);
    for (int i = 0; i < G4_VP8_LANES; i++) {
        const int p1 = e->v[2][i], p0 = e->v[3][i], q0 = e->v[4][i], q1 = e->v[5][i];
        const int a = g4_vp8_clip_8(3 * (q0 - p0) + (g4_vp8_clip_8(p1 - q1) & steep[i])) & on[i];
        const int up = g4_vp8_clip_8(a + 3) >> 3, down = g4_vp8_clip_8(a + 4) >> 3,
                  less = ((down + 1) >> 1) & ~steep[i];
        e->v[2][i] = g4_clamp_u8(p1 + less);
        e->v[3][i] = g4_clamp_u8(p0 + up);
        e->v[4][i] = g4_clamp_u8(q0 - down);
        e->v[5][i] = g4_clamp_u8(q1 - less);
    }
}

/* The two halves of v (128) in turn: an index loses its first bit of seven, which becomes its last. */
static inline void g4_vp8_shuffle(const uint8_t *restrict v, uint8_t *restrict out)
{
    enum { HALF = 4 * G4_VP8_LANES };
    for (size_t i = 0; i < HALF; i++) {
        out[2 * i] = v[i];
        out[2 * i + 1] = v[i + HALF];
    }
}

/* An edge as 8 places at a and 8 at b. Those of an upright one lie below each other. */
static inline void g4_vp8_take_rows(g4_vp8_edge *e, const uint8_t *a, const uint8_t *b, size_t stride)
{
    for (size_t i = 0; i < 8; i++) {
        memcpy(e->v[i], a + i * stride - 4 * stride, 8);
        memcpy(e->v[i] + 8, b + i * stride - 4 * stride, 8);
    }
}
static inline void g4_vp8_give_rows(const g4_vp8_edge *e, uint8_t *a, uint8_t *b, size_t stride)
{
    for (size_t i = 1; i < 7; i++) {
        memcpy(a + i * stride - 4 * stride, e->v[i], 8);
        memcpy(b + i * stride - 4 * stride, e->v[i] + 8, 8);
    }
}
static inline void g4_vp8_take_columns(g4_vp8_edge *e, const uint8_t *a, const uint8_t *b, size_t stride)
{
    g4_vp8_edge t;
    uint8_t *const from = (uint8_t *)&t, *const to = (uint8_t *)e;
    for (size_t i = 0; i < 8; i++) {
        memcpy(to + 8 * i, a + i * stride - 4, 8);
        memcpy(to + 8 * (8 + i), b + i * stride - 4, 8);
    }
    g4_vp8_shuffle(to, from);
    g4_vp8_shuffle(from, to);
    g4_vp8_shuffle(to, from);
    g4_vp8_shuffle(from, to);
}
static inline void g4_vp8_give_columns(g4_vp8_edge *e, uint8_t *a, uint8_t *b, size_t stride)
{
    g4_vp8_edge t;
    uint8_t *const from = (uint8_t *)e, *const to = (uint8_t *)&t;
    g4_vp8_shuffle(from, to);
    g4_vp8_shuffle(to, from);
    g4_vp8_shuffle(from, to);
    for (size_t i = 0; i < 8; i++) {
        memcpy(a + i * stride - 4, to + 8 * i, 8);
        memcpy(b + i * stride - 4, to + 8 * (8 + i), 8);
    }
}

enum { G4_VP8_SIMPLE_OUTER, G4_VP8_SIMPLE_INNER, G4_VP8_OUTER, G4_VP8_INNER };

static inline void g4_vp8_filter_as(int way, g4_vp8_edge *e, const g4_vp8_strength *s)
{
    if (way == G4_VP8_OUTER)
        g4_vp8_filter_outer(e, s);
    else if (way == G4_VP8_INNER)
        g4_vp8_filter_inner(e, s);
    else
        g4_vp8_filter_simple(e, s->limit + (way == G4_VP8_SIMPLE_OUTER ? 4 : 0));
}

static void g4_vp8_filter_upright(int way, const g4_vp8_strength *s, uint8_t *a, uint8_t *b, size_t stride)
{
    g4_vp8_edge e;
    g4_vp8_take_columns(&e, a, b, stride);
    g4_vp8_filter_as(way, &e, s);
    g4_vp8_give_columns(&e, a, b, stride);
}

static void g4_vp8_filter_level(int way, const g4_vp8_strength *s, uint8_t *a, uint8_t *b, size_t stride)
{
    g4_vp8_edge e;
    g4_vp8_take_rows(&e, a, b, stride);
    g4_vp8_filter_as(way, &e, s);
    g4_vp8_give_rows(&e, a, b, stride);
}

/* All edges of a macroblock, in their order: the left one, the upright ones inside, the upper one, those inside. */
static void g4_vp8_filter_block(const g4_vp8 *v, uint32_t x, uint32_t y)
{
    const g4_vp8_planes at = g4_vp8_place(v, x, y);
    const g4_vp8_strength *const s = &v->column[x].strength;
    const size_t stride = at.stride, half = stride / 2, inside = v->column[x].has_inner ? 16 : 0;
    const int is_full = !v->is_simple, outer = is_full ? G4_VP8_OUTER : G4_VP8_SIMPLE_OUTER, inner = outer + 1;
    if (s->limit == 0) return;
    if (x > 0) g4_vp8_filter_upright(outer, s, at.y, at.y + 8 * stride, stride);
    if (x > 0 && is_full) g4_vp8_filter_upright(outer, s, at.u, at.v, half);
    for (size_t i = 4; i < inside; i += 4) g4_vp8_filter_upright(inner, s, at.y + i, at.y + i + 8 * stride, stride);
    if (inside && is_full) g4_vp8_filter_upright(inner, s, at.u + 4, at.v + 4, half);
    if (y > 0) g4_vp8_filter_level(outer, s, at.y, at.y + 8, stride);
    if (y > 0 && is_full) g4_vp8_filter_level(outer, s, at.u, at.v, half);
    for (size_t i = 4; i < inside; i += 4)
        g4_vp8_filter_level(inner, s, at.y + i * stride, at.y + i * stride + 8, stride);
    if (inside && is_full) g4_vp8_filter_level(inner, s, at.u + 4 * half, at.v + 4 * half, half);
}

/* ---- Pictures ---------------------------------------------------------------------------------- */

static const char *g4_vp8_read(g4_vp8 *v, const uint8_t *data, size_t size)
{
    g4_pace pace = { v->m->halt, 0 };
    const char *const wrong = g4_vp8_read_head(v, data, size);
    if (wrong) return wrong;
    for (uint32_t y = 0; y < v->mb_h; y++) {
        g4_vp8_bits *const part = &v->part[y & (v->n_parts - 1)];
        v->left_set = 0;
        memset(v->left_modes, G4_VP8_DC, sizeof v->left_modes);
        for (uint32_t x = 0; x < v->mb_w; x++) g4_vp8_read_block(v, part, x, y);
        if (v->head.is_over || part->is_over) return g4_vp8_short;
        for (uint32_t x = 0; v->is_filtered && x < v->mb_w; x++) g4_vp8_filter_block(v, x, y);
        if (g4_pace_ends(&pace, 16 * 16 * 8 * (size_t)v->mb_w)) return "halted";
    }
    return NULL;
}

g4_status g4_vp8_decode(const g4_media_limits *m, const uint8_t *data, size_t size, uint32_t w, uint32_t h,
                        g4_vp8_planes *out, g4_error *err)
{
    g4_vp8 v = { .m = m, .mb_w = (w + 15) / 16, .mb_h = (h + 15) / 16, .is_absolute = 1 };
    const size_t n = (size_t)v.mb_w * v.mb_h;
    v.planes.y = g4_alloc(m->a, n, 16 * 16 + 2 * 8 * 8);
    v.column = g4_alloc(m->a, v.mb_w, sizeof *v.column);
    const char *wrong = NULL;
    if (v.planes.y && v.column) {
        memset(v.column, 0, v.mb_w * sizeof *v.column);
        v.planes.u = v.planes.y + 16 * 16 * n;
        v.planes.v = v.planes.u + 8 * 8 * n;
        v.planes.stride = 16 * (size_t)v.mb_w;
        wrong = g4_vp8_read(&v, data, size);
    }
    const int is_there = v.planes.y && v.column && !wrong;
    g4_free(m->a, v.column);
    if (!is_there) g4_free(m->a, v.planes.y);
    *out = is_there ? v.planes : (g4_vp8_planes) { NULL, NULL, NULL, 0 };
    if (is_there) return G4_OK;
    const g4_status s = g4_halt_check(m->halt, err);
    if (s) return s;
    return wrong ? g4_fail(err, G4_ERR_FORMAT, "WebP: lossy pixels: %s", wrong)
                 : g4_fail(err, G4_ERR_MEMORY, "WebP: %u x %u pixels: out of memory", (unsigned)w, (unsigned)h);
}
