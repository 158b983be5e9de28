/* blocks.c - blocks of 4 x 4 pixels of textures: BC1 to BC7 of Direct3D (S3TC, RGTC and BPTC of OpenGL), with Pillow's
 * rounding. A block has two colours or more, its endpoints, and for each pixel a place between two of them. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

typedef struct {
    uint64_t low, high; /* bits of a block that are left, the next one lowest */
} g4_block_bits;

static g4_block_bits g4_block_begin(const uint8_t *p)
{
    return (g4_block_bits) { g4_le32(p) | (uint64_t)g4_le32(p + 4) << 32, g4_le32(p + 8) | (uint64_t)g4_le32(p + 12)
                                                                                               << 32 };
}

static uint32_t g4_block_take(g4_block_bits *b, uint32_t n) /* below 32 */
{
    const uint32_t v = (uint32_t)(b->low & ((UINT64_C(1) << n) - 1));
    if (n == 0) return 0;
    b->low = b->low >> n | b->high << (64 - n);
    b->high >>= n;
    return v;
}

/* ---- BC1 to BC5 ------------------------------------------------------------------------------- */

static void g4_block_565(uint32_t v, uint32_t c[4])
{
    const uint32_t r = v >> 11, g = v >> 5 & 63, b = v & 31;
    c[0] = r << 3 | r >> 2;
    c[1] = g << 2 | g >> 4;
    c[2] = b << 3 | b >> 2;
    c[3] = 255;
}

/* Two colours and two between them; or one between them and one that is transparent, if the first is not the larger. */
static void g4_block_colours(const uint8_t *p, int is_bc1, uint8_t rgba[16][4])
{
    const uint32_t first = g4_le16(p), second = g4_le16(p + 2);
    const int has_four = !is_bc1 || first > second;
    uint32_t c[4][4] = { { 0 } };
    g4_block_565(first, c[0]);
    g4_block_565(second, c[1]);
    for (int k = 0; k < 4; k++) {
        c[2][k] = has_four ? (2 * c[0][k] + c[1][k]) / 3 : (c[0][k] + c[1][k]) / 2;
        c[3][k] = has_four ? (c[0][k] + 2 * c[1][k]) / 3 : 0;
    }
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 4; k++) rgba[i][k] = (uint8_t)c[p[4 + i / 4] >> i % 4 * 2 & 3][k];
}

/* Two levels and six between them; or four, and the ends of the range. flip: 128 if they have a sign. */
static void g4_block_levels(const uint8_t *p, uint32_t flip, uint8_t rgba[16][4], int channel)
{
    const uint32_t first = p[0] ^ flip, second = p[1] ^ flip, steps = first > second ? 7 : 5;
    uint32_t level[8] = { first, second, 0, 0, 0, 0, 0, 255 };
    for (uint32_t i = 1; i < steps; i++) level[i + 1] = ((steps - i) * first + i * second) / steps;
    for (int half = 0; half < 2; half++) {
        const uint8_t *q = p + 2 + 3 * half;
        const uint32_t bits = g4_le16(q) | (uint32_t)q[2] << 16;
        for (int i = 0; i < 8; i++) rgba[8 * half + i][channel] = (uint8_t)level[bits >> 3 * i & 7];
    }
}

static void g4_block_alpha(const uint8_t *p, uint8_t rgba[16][4]) /* of 4 bits each */
{
    for (int i = 0; i < 16; i++) rgba[i][3] = (uint8_t)((p[i / 2] >> i % 2 * 4 & 15) * 17);
}

static void g4_block_fill(uint8_t rgba[16][4], uint8_t level)
{
    for (int i = 0; i < 16; i++) {
        memset(rgba[i], level, 3);
        rgba[i][3] = 255;
    }
}

/* ---- What BC6 and BC7 share ------------------------------------------------------------------ */

/* Which of two subsets a pixel belongs to, a bit each; which of three, two bits each; by number of the partition. */
static const uint16_t g4_block_twos[64] = {
    0xcccc, 0x8888, 0xeeee, 0xecc8, 0xc880, 0xfeec, 0xfec8, 0xec80, 0xc800, 0xffec, 0xfe80, 0xe800, 0xffe8,
    0xff00, 0xfff0, 0xf000, 0xf710, 0x008e, 0x7100, 0x08ce, 0x008c, 0x7310, 0x3100, 0x8cce, 0x088c, 0x3110,
    0x6666, 0x366c, 0x17e8, 0x0ff0, 0x718e, 0x399c, 0xaaaa, 0xf0f0, 0x5a5a, 0x33cc, 0x3c3c, 0x55aa, 0x9696,
    0xa55a, 0x73ce, 0x13c8, 0x324c, 0x3bdc, 0x6996, 0xc33c, 0x9966, 0x0660, 0x0272, 0x04e4, 0x4e40, 0x2720,
    0xc936, 0x936c, 0x39c6, 0x639c, 0x9336, 0x9cc6, 0x817e, 0xe718, 0xccf0, 0x0fcc, 0x7744, 0xee22
};
static const uint32_t g4_block_threes[64] = {
    0xaa685050, 0x6a5a5040, 0x5a5a4200, 0x5450a0a8, 0xa5a50000, 0xa0a05050, 0x5555a0a0, 0x5a5a5050,
    0xaa550000, 0xaa555500, 0xaaaa5500, 0x90909090, 0x94949494, 0xa4a4a4a4, 0xa9a59450, 0x2a0a4250,
    0xa5945040, 0x0a425054, 0xa5a5a500, 0x55a0a0a0, 0xa8a85454, 0x6a6a4040, 0xa4a45000, 0x1a1a0500,
    0x0050a4a4, 0xaaa59090, 0x14696914, 0x69691400, 0xa08585a0, 0xaa821414, 0x50a4a450, 0x6a5a0200,
    0xa9a58000, 0x5090a0a8, 0xa8a09050, 0x24242424, 0x00aa5500, 0x24924924, 0x24499224, 0x50a50a50,
    0x500aa550, 0xaaaa4444, 0x66660000, 0xa5a0a5a0, 0x50a050a0, 0x69286928, 0x44aaaa44, 0x66666600,
    0xaa444444, 0x54a854a8, 0x95809580, 0x96969600, 0xa85454a8, 0x80959580, 0xaa141414, 0x96960000,
    0xaaaa1414, 0xa05050a0, 0xa0a5a5a0, 0x96000000, 0x40804080, 0xa9a8a9a8, 0xaaaaaa44, 0x2a4a5254
};
/* The pixels whose place has a bit less, since its highest is 0: in the second of two subsets, and in the second and
 * the third of three, as a hexadecimal digit. In the first subset it is pixel 0. */
static const char g4_block_anchors[3][65] = {
    "fffffffffffffffff282288f28228822ff6828ff28222ff66268ff22fffff22f",
    "33ff83ff88666533338f336a588685ff8f356a8ff3f5ffff3f55585a5a8dfc33",
    "f883ff38fffffff8f8f3f8f83f6affa8f3faa89a6f8f3668f3ffffffffff3ff8",
};

static uint32_t g4_block_subset(uint32_t subsets, uint32_t partition, uint32_t i)
{
    if (subsets == 2) return (uint32_t)(g4_block_twos[partition] >> i & 1);
    return subsets == 3 ? (uint32_t)(g4_block_threes[partition] >> 2 * i & 3) : 0;
}

static int g4_block_is_anchor(uint32_t subsets, uint32_t partition, uint32_t i)
{
    const char digit = "0123456789abcdef"[i];
    if (i == 0) return 1;
    if (subsets == 2) return g4_block_anchors[0][partition] == digit;
    return subsets == 3 && (g4_block_anchors[1][partition] == digit || g4_block_anchors[2][partition] == digit);
}

/* How much of the second endpoint a place of so many bits means, in 64ths. */
static int g4_block_weight(uint32_t bits, uint32_t place)
{
    static const uint8_t weights[3][16] = { { 0, 21, 43, 64 },
                                            { 0, 9, 18, 27, 37, 46, 55, 64 },
                                            { 0, 4, 9, 13, 17, 21, 26, 30, 34, 38, 43, 47, 51, 55, 60, 64 } };
    return weights[bits - 2][place];
}

/* ---- BC7 ------------------------------------------------------------------------------------- */

/* Bits of: the partition, the rotation of channels, the choice which place is alpha's; a colour, alpha; a lowest bit
 * of each endpoint, of both of a subset; a place, a second place. */
typedef struct {
    uint8_t subsets, partition, rotation, choice, colour, alpha, own_bit, shared_bit, place, second;
} g4_bc7_mode;

static const g4_bc7_mode g4_bc7_modes[8] = {
    { 3, 4, 0, 0, 4, 0, 1, 0, 3, 0 }, { 2, 6, 0, 0, 6, 0, 0, 1, 3, 0 }, { 3, 6, 0, 0, 5, 0, 0, 0, 2, 0 },
    { 2, 6, 0, 0, 7, 0, 1, 0, 2, 0 }, { 1, 0, 2, 1, 5, 6, 0, 0, 2, 3 }, { 1, 0, 2, 0, 7, 8, 0, 0, 2, 2 },
    { 1, 0, 0, 0, 7, 7, 1, 0, 4, 0 }, { 2, 6, 0, 0, 5, 5, 1, 0, 2, 0 },
};

/* The endpoints of all subsets, of 8 bits a channel. */
static void g4_bc7_endpoints(const g4_bc7_mode *mode, g4_block_bits *b, uint32_t ends[6][4])
{
    const uint32_t n = 2u * mode->subsets, channels = mode->alpha ? 4 : 3;
    const uint32_t more = mode->own_bit | mode->shared_bit;
    for (uint32_t c = 0; c < channels; c++)
        for (uint32_t i = 0; i < n; i++) ends[i][c] = g4_block_take(b, c < 3 ? mode->colour : mode->alpha);
    for (uint32_t i = 0, bit = 0; i < n && more; i++) {
        if (mode->own_bit || i % 2 == 0) bit = g4_block_take(b, 1);
        for (uint32_t c = 0; c < channels; c++) ends[i][c] = ends[i][c] << 1 | bit;
    }
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t c = 0; c < channels; c++) {
            const uint32_t bits = (c < 3 ? mode->colour : mode->alpha) + more, v = ends[i][c] << (8 - bits);
            ends[i][c] = v | v >> bits;
        }
        if (channels == 3) ends[i][3] = 255;
    }
}

static uint8_t g4_bc7_between(uint32_t first, uint32_t second, int weight)
{
    return (uint8_t)((first * (uint32_t)(64 - weight) + second * (uint32_t)weight + 32) >> 6);
}

static void g4_bc7(const uint8_t *p, uint8_t rgba[16][4])
{
    uint32_t ends[6][4], number = 0;
    g4_block_fill(rgba, 0);
    while (number < 8 && !(p[0] >> number & 1)) number++;
    if (number == 8) return; /* no mode */
    const g4_bc7_mode *mode = &g4_bc7_modes[number];
    g4_block_bits b = g4_block_begin(p);
    g4_block_take(&b, number + 1);
    const uint32_t partition = g4_block_take(&b, mode->partition), rotation = g4_block_take(&b, mode->rotation);
    const uint32_t choice = g4_block_take(&b, mode->choice);
    g4_bc7_endpoints(mode, &b, ends);
    g4_block_bits second = b; /* places of alpha, or of colours, stand behind the others */
    for (uint32_t i = 0; i < 16; i++) g4_block_take(&second, mode->place - (i == 0 ? 1u : 0u));
    for (uint32_t i = 0; i < 16; i++) {
        const uint32_t(*end)[4] = (const uint32_t(*)[4]) & ends[2 * g4_block_subset(mode->subsets, partition, i)];
        const uint32_t less = (uint32_t)g4_block_is_anchor(mode->subsets, partition, i);
        int colour = g4_block_weight(mode->place, g4_block_take(&b, mode->place - less)), alpha = colour;
        if (mode->second) alpha = g4_block_weight(mode->second, g4_block_take(&second, mode->second - less));
        if (choice) {
            const int swapped = colour;
            colour = alpha;
            alpha = swapped;
        }
        for (uint32_t c = 0; c < 4; c++) rgba[i][c] = g4_bc7_between(end[0][c], end[1][c], c < 3 ? colour : alpha);
        if (rotation > 0) {
            const uint8_t v = rgba[i][3];
            rgba[i][3] = rgba[i][rotation - 1];
            rgba[i][rotation - 1] = v;
        }
    }
}

/* ---- BC6 ------------------------------------------------------------------------------------- */

/* Subsets; whether all endpoints but the first are differences to it; bits of it, and of red, green, blue of others. */
typedef struct {
    uint8_t subsets, is_difference, bits, others[3];
} g4_bc6_mode;

static const g4_bc6_mode g4_bc6_modes[14] = {
    { 2, 1, 10, { 5, 5, 5 } }, { 2, 1, 7, { 6, 6, 6 } },  { 2, 1, 11, { 5, 4, 4 } },    { 2, 1, 11, { 4, 5, 4 } },
    { 2, 1, 11, { 4, 4, 5 } }, { 2, 1, 9, { 5, 5, 5 } },  { 2, 1, 8, { 6, 5, 5 } },     { 2, 1, 8, { 5, 6, 5 } },
    { 2, 1, 8, { 5, 5, 6 } },  { 2, 0, 6, { 6, 6, 6 } },  { 1, 0, 10, { 10, 10, 10 } }, { 1, 1, 11, { 9, 9, 9 } },
    { 1, 1, 12, { 8, 8, 8 } }, { 1, 1, 16, { 4, 4, 4 } },
};
/* The order of their bits: for each run of them, the value (red, green and blue of each endpoint), its lowest bit that
 * the run sets, and how many it sets, a hexadecimal digit each. */
static const uint16_t g4_bc6_order[14][24] = {
    { 0x741, 0x841, 0xb41, 0x00a, 0x10a, 0x20a, 0x305, 0xa41, 0x704, 0x405, 0xb01, 0xa04, 0x505, 0xb11, 0x804, 0x605,
      0xb21, 0x905, 0xb31 },
    { 0x751, 0xa42, 0x007, 0xb02, 0x841, 0x107, 0x851, 0xb21, 0x741, 0x207, 0xb31,
      0xb51, 0xb41, 0x306, 0x704, 0x406, 0xa04, 0x506, 0x804, 0x606, 0x906 },
    { 0x00a, 0x10a, 0x20a, 0x305, 0x0a1, 0x704, 0x404, 0x1a1, 0xb01, 0xa04, 0x504, 0x2a1, 0xb11, 0x804, 0x605, 0xb21,
      0x905, 0xb31 },
    { 0x00a, 0x10a, 0x20a, 0x304, 0x0a1, 0xa41, 0x704, 0x405, 0x1a1, 0xa04,
      0x504, 0x2a1, 0xb11, 0x804, 0x604, 0xb01, 0xb21, 0x904, 0x741, 0xb31 },
    { 0x00a, 0x10a, 0x20a, 0x304, 0x0a1, 0x841, 0x704, 0x404, 0x1a1, 0xb01, 0xa04, 0x505, 0x2a1, 0x804, 0x604, 0xb12,
      0x904, 0xb41, 0xb31 },
    { 0x009, 0x841, 0x109, 0x741, 0x209, 0xb41, 0x305, 0xa41, 0x704, 0x405, 0xb01, 0xa04, 0x505, 0xb11, 0x804, 0x605,
      0xb21, 0x905, 0xb31 },
    { 0x008, 0xa41, 0x841, 0x108, 0xb21, 0x741, 0x208, 0xb32, 0x306, 0x704, 0x405, 0xb01, 0xa04, 0x505, 0xb11, 0x804,
      0x606, 0x906 },
    { 0x008, 0xb01, 0x841, 0x108, 0x751, 0x741, 0x208, 0xa51, 0xb41, 0x305, 0xa41,
      0x704, 0x406, 0xa04, 0x505, 0xb11, 0x804, 0x605, 0xb21, 0x905, 0xb31 },
    { 0x008, 0xb11, 0x841, 0x108, 0x851, 0x741, 0x208, 0xb51, 0xb41, 0x305, 0xa41,
      0x704, 0x405, 0xb01, 0xa04, 0x506, 0x804, 0x605, 0xb21, 0x905, 0xb31 },
    { 0x006, 0xa41, 0xb02, 0x841, 0x106, 0x751, 0x851, 0xb21, 0x741, 0x206, 0xa51,
      0xb31, 0xb51, 0xb41, 0x306, 0x704, 0x406, 0xa04, 0x506, 0x804, 0x606, 0x906 },
    { 0x00a, 0x10a, 0x20a, 0x30a, 0x40a, 0x50a },
    { 0x00a, 0x10a, 0x20a, 0x309, 0x0a1, 0x409, 0x1a1, 0x509, 0x2a1 },
    { 0x00a, 0x10a, 0x20a, 0x308, 0x0b1, 0x0a1, 0x408, 0x1b1, 0x1a1, 0x508, 0x2b1, 0x2a1 },
    { 0x00a, 0x10a, 0x20a, 0x304, 0x0f1, 0x0e1, 0x0d1, 0x0c1, 0x0b1, 0x0a1, 0x404, 0x1f1,
      0x1e1, 0x1d1, 0x1c1, 0x1b1, 0x1a1, 0x504, 0x2f1, 0x2e1, 0x2d1, 0x2c1, 0x2b1, 0x2a1 },
};

static void g4_bc6_extend(uint32_t *v, uint32_t bits) /* a number with a sign to 16 bits */
{
    if (*v >> (bits - 1) & 1) *v |= 0xffffu & (0xffffu << bits);
}

/* To 16 bits. As in Pillow, the sum of a difference with a sign keeps only its bits. */
static int g4_bc6_widen(uint32_t v, uint32_t bits, int is_signed)
{
    const int x = is_signed && v > 0x7fff ? (int)v - 0x10000 : (int)v, size = x < 0 ? -x : x;
    if (bits >= (is_signed ? 16 : 15) || x == 0) return x;
    if (!is_signed) return x == (1 << bits) - 1 ? 0xffff : ((x << 15) + 0x4000) >> (bits - 1);
    const int wide = size >= (1 << (bits - 1)) - 1 ? 0x7fff : ((size << 15) + 0x4000) >> (bits - 1);
    return x < 0 ? -wide : wide;
}

/* Half floats as integers to levels: below 0 is black, above 1 white. */
static uint8_t g4_bc6_level(int v, int is_signed)
{
    if (v <= 0) return 0;
    const int half = v * 31 / (is_signed ? 32 : 64), exponent = half >> 10;
    const int fraction = exponent ? (half & 1023) | 1024 : half & 1023;
    const float value = (float)fraction / 16777216.0F * (float)(1 << (exponent ? exponent - 1 : 0));
    return (uint8_t)(value > 1 ? 255.0F : value * 255.0F);
}

/* The mode's number, and its bits taken; 14: there is none. */
static uint32_t g4_bc6_mode_of(g4_block_bits *b)
{
    const uint32_t two = g4_block_take(b, 2);
    if (two < 2) return two;
    const uint32_t three = g4_block_take(b, 3), number = two == 2 ? 2 + three : 10 + three;
    return number < 14 ? number : 14;
}

static void g4_bc6_endpoints(uint32_t number, g4_block_bits *b, int is_signed, int ends[12])
{
    const g4_bc6_mode *mode = &g4_bc6_modes[number];
    const uint32_t n = 6u * mode->subsets;
    uint32_t raw[12] = { 0 };
    for (const uint16_t *run = g4_bc6_order[number]; run < g4_bc6_order[number] + 24 && *run; run++)
        raw[*run >> 8] |= g4_block_take(b, *run & 15) << (*run >> 4 & 15);
    for (uint32_t i = 0; i < n; i++) {
        if (i >= 3 ? is_signed || mode->is_difference : is_signed)
            g4_bc6_extend(&raw[i], i < 3 ? mode->bits : mode->others[i % 3]);
        if (i >= 3 && mode->is_difference) raw[i] = (raw[i] + raw[i % 3]) & ((1u << mode->bits) - 1);
    }
    for (uint32_t i = 0; i < n; i++) ends[i] = g4_bc6_widen(raw[i], mode->bits, is_signed);
}

static void g4_bc6(const uint8_t *p, int is_signed, uint8_t rgba[16][4])
{
    int ends[12] = { 0 };
    g4_block_bits b = g4_block_begin(p);
    const uint32_t number = g4_bc6_mode_of(&b);
    g4_block_fill(rgba, 0);
    if (number == 14) return;
    const uint32_t subsets = g4_bc6_modes[number].subsets, bits = subsets == 2 ? 3 : 4;
    g4_bc6_endpoints(number, &b, is_signed, ends);
    const uint32_t partition = subsets == 2 ? g4_block_take(&b, 5) : 0;
    for (uint32_t i = 0; i < 16; i++) {
        const int *end = ends + 6 * g4_block_subset(subsets, partition, i);
        const uint32_t less = (uint32_t)g4_block_is_anchor(subsets, partition, i);
        const int weight = g4_block_weight(bits, g4_block_take(&b, bits - less));
        for (int c = 0; c < 3; c++) {
            const int v = (end[c] * (64 - weight) + end[c + 3] * weight) >> 6;
            rgba[i][c] = g4_bc6_level(v, is_signed);
        }
    }
}

/* ---- All of them ------------------------------------------------------------------------------ */

size_t g4_block_bytes(int coding) { return coding == G4_BC1 || coding == G4_BC4 ? 8 : 16; }

void g4_block_decode(int coding, const uint8_t *p, uint8_t rgba[16][4])
{
    const uint32_t flip = coding == G4_BC5_SIGNED ? 128 : 0;
    switch (coding) {
    case G4_BC1: g4_block_colours(p, 1, rgba); break;
    case G4_BC2:
        g4_block_colours(p + 8, 0, rgba);
        g4_block_alpha(p, rgba);
        break;
    case G4_BC3:
        g4_block_colours(p + 8, 0, rgba);
        g4_block_levels(p, 0, rgba, 3);
        break;
    case G4_BC4:
        g4_block_fill(rgba, 0);
        for (int c = 0; c < 3; c++) g4_block_levels(p, 0, rgba, c);
        break;
    case G4_BC5:
    case G4_BC5_SIGNED:
        g4_block_fill(rgba, (uint8_t)flip);
        g4_block_levels(p, flip, rgba, 0);
        g4_block_levels(p + 8, flip, rgba, 1);
        break;
    case G4_BC7: g4_bc7(p, rgba); break;
    default: g4_bc6(p, coding == G4_BC6_SIGNED, rgba);
    }
}
