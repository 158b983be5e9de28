/* static.c - activations as the checkpoint's own scales round them, which stand in the file (l.N.act) and do not follow
 * what is computed: x' = clamp(round(x / s), -128, 127) * s for the inputs of a matrix, and for its outputs with a
 * scale of their own. A scale of 0 leaves them as they are.
 *
 * The products of every table of kernels serve, though their inputs have 127 as their largest magnitude and a rounding
 * of their own: what is multiplied is a sum of parts d q with q from -127 to 127, and so is what comes out. A rounded
 * row is one part, and a second one of -1 where it has -128. Of a row that is left as it is each part is what the
 * kernels round the rest to; three leave 2^-24 of a block's largest value. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "compute.h"

void g4_static_round(float *x, size_t n, float scale)
{
    for (size_t i = 0; i < n && scale > 0; i++) x[i] = g4_clamp(rintf(x[i] / scale), -128.0f, 127.0f) * scale;
}

/* Row `row` of a part is complete in q: d is the same for all of it, sum follows. */
static void g4_part_ends(const g4_acts *part, int row, float d)
{
    const size_t steps = (size_t)part->steps, r = (size_t)row;
    const int8_t *q = part->q + r * 64 * steps;
    int16_t *sum = part->sum + r * 4 * steps;
    for (size_t i = 0; i < 2 * steps; i++) part->d[r * 2 * steps + i] = d;
    for (size_t i = 0; i < 4 * steps; i++) {
        int total = 0;
        for (size_t k = 0; k < 16; k++) total += q[16 * i + k];
        sum[i] = (int16_t)total;
    }
}

/* Whether there is a second part. */
static int g4_parts_of_rounded(const g4_acts parts[G4_PARTS], int row, const float *x, float scale)
{
    const size_t cols = 64 * (size_t)parts->steps;
    int8_t *first = parts[0].q + (size_t)row * cols, *second = parts[1].q + (size_t)row * cols;
    int lowest = 0;
    for (size_t i = 0; i < cols; i++) {
        const float v = g4_clamp(rintf(x[i] / scale), -128.0f, 127.0f);
        first[i] = g4_to_int8(v);
        second[i] = v < -127.0f ? -1 : 0;
        lowest |= second[i];
    }
    g4_part_ends(&parts[0], row, scale);
    g4_part_ends(&parts[1], row, scale); /* zeros too: another row may need the part */
    return lowest != 0;
}

/* rest -= the part. */
static void g4_part_taken(float *rest, const g4_acts *part, int row)
{
    const size_t cols = 64 * (size_t)part->steps, r = (size_t)row;
    const float *d = part->d + r * cols / 32;
    for (size_t i = 0; i < cols; i++) rest[i] -= d[i / 32] * (float)part->q[r * cols + i];
}

int g4_static_parts(const g4_kernels *kernels, const g4_acts parts[G4_PARTS], int row, const float *x, float scale)
{
    const size_t cols = 64 * (size_t)parts->steps, r = (size_t)row;
    if (scale > 0) return 1 + g4_parts_of_rounded(parts, row, x, scale);
    float *rest = g4_acts_row(&parts[0], row);
    memcpy(rest, x, cols * sizeof *rest);
    for (int i = 0; i < G4_PARTS; i++) {
        const g4_acts *p = &parts[i];
        kernels->quantize(p->q + r * cols, p->d + r * cols / 32, p->sum + r * cols / 16, rest, (int)cols);
        g4_part_taken(rest, p, row);
    }
    return G4_PARTS;
}
