/* draw.c - boxes and their labels. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

/* Characters 32 to 95 in 7 rows of 5 bits, the left column highest. Small letters are drawn as capitals. */
static const uint8_t g4_font[64][7] = {
    { 0, 0, 0, 0, 0, 0, 0 },        { 4, 4, 4, 4, 4, 0, 4 },        { 10, 10, 0, 0, 0, 0, 0 },
    { 10, 10, 31, 10, 31, 10, 10 }, { 4, 15, 20, 14, 5, 30, 4 },    { 25, 25, 2, 4, 8, 19, 19 },
    { 12, 18, 18, 12, 21, 18, 13 }, { 4, 4, 0, 0, 0, 0, 0 },        { 2, 4, 8, 8, 8, 4, 2 },
    { 8, 4, 2, 2, 2, 4, 8 },        { 0, 21, 14, 31, 14, 21, 0 },   { 0, 4, 4, 31, 4, 4, 0 },
    { 0, 0, 0, 0, 4, 4, 8 },        { 0, 0, 0, 31, 0, 0, 0 },       { 0, 0, 0, 0, 0, 12, 12 },
    { 1, 1, 2, 4, 8, 16, 16 },      { 14, 17, 17, 21, 17, 17, 14 }, { 4, 12, 20, 4, 4, 4, 31 },
    { 14, 17, 1, 6, 8, 16, 31 },    { 30, 1, 1, 14, 1, 1, 30 },     { 18, 18, 18, 31, 2, 2, 2 },
    { 31, 16, 16, 30, 1, 1, 30 },   { 14, 16, 16, 30, 17, 17, 14 }, { 31, 1, 2, 2, 4, 4, 4 },
    { 14, 17, 17, 14, 17, 17, 14 }, { 14, 17, 17, 15, 1, 1, 14 },   { 0, 12, 12, 0, 12, 12, 0 },
    { 0, 4, 4, 0, 4, 4, 8 },        { 1, 6, 24, 16, 24, 6, 1 },     { 0, 0, 31, 0, 31, 0, 0 },
    { 16, 12, 3, 1, 3, 12, 16 },    { 14, 17, 1, 6, 4, 0, 4 },      { 14, 17, 23, 21, 23, 16, 14 },
    { 14, 17, 17, 31, 17, 17, 17 }, { 30, 17, 17, 30, 17, 17, 30 }, { 15, 16, 16, 16, 16, 16, 15 },
    { 28, 18, 17, 17, 17, 18, 28 }, { 31, 16, 16, 28, 16, 16, 31 }, { 31, 16, 16, 28, 16, 16, 16 },
    { 15, 16, 16, 19, 17, 17, 14 }, { 17, 17, 17, 31, 17, 17, 17 }, { 31, 4, 4, 4, 4, 4, 31 },
    { 7, 1, 1, 1, 1, 17, 14 },      { 17, 18, 20, 24, 20, 18, 17 }, { 16, 16, 16, 16, 16, 16, 31 },
    { 17, 27, 21, 21, 17, 17, 17 }, { 17, 25, 25, 21, 19, 19, 17 }, { 14, 17, 17, 17, 17, 17, 14 },
    { 30, 17, 17, 30, 16, 16, 16 }, { 14, 17, 17, 17, 21, 18, 13 }, { 30, 17, 17, 30, 20, 18, 17 },
    { 15, 16, 16, 14, 1, 1, 30 },   { 31, 4, 4, 4, 4, 4, 4 },       { 17, 17, 17, 17, 17, 17, 14 },
    { 17, 17, 17, 10, 10, 4, 4 },   { 17, 17, 17, 21, 21, 27, 17 }, { 17, 17, 10, 4, 10, 17, 17 },
    { 17, 17, 10, 4, 4, 4, 4 },     { 31, 1, 2, 4, 8, 16, 31 },     { 14, 8, 8, 8, 8, 8, 14 },
    { 16, 16, 8, 4, 2, 1, 1 },      { 14, 2, 2, 2, 2, 2, 14 },      { 4, 10, 17, 0, 0, 0, 0 },
    { 0, 0, 0, 0, 0, 0, 31 },
};

static void g4_fill(uint8_t *pixels, int width, int height, size_t stride, int64_t x0, int64_t y0, int64_t x1,
                    int64_t y1, const uint8_t rgb[3])
{
    for (int64_t y = y0 < 0 ? 0 : y0; y < y1 && y < height; y++) {
        for (int64_t x = x0 < 0 ? 0 : x0; x < x1 && x < width; x++)
            memcpy(pixels + (size_t)y * stride + 3 * (size_t)x, rgb, 3);
    }
}

G4_API void g4_draw_box(uint8_t *pixels, int width, int height, size_t stride, const int box[4], const char *label,
                        const uint8_t rgb[3])
{
    if (!pixels || width <= 0 || height <= 0) return;
    if (stride == 0) stride = (size_t)width * 3;
    int64_t x0 = box[0], y0 = box[1], x1 = box[2], y1 = box[3];
    int64_t line = g4_max_int(1, g4_min_int(width, height) / 240),
            dot = g4_max_int(1, g4_min_int(width, height) / 320); /* thickness grows with the picture */
    g4_fill(pixels, width, height, stride, x0, y0, x1, y0 + line < y1 ? y0 + line : y1, rgb);
    g4_fill(pixels, width, height, stride, x0, y1 - line > y0 ? y1 - line : y0, x1, y1, rgb);
    g4_fill(pixels, width, height, stride, x0, y0, x0 + line < x1 ? x0 + line : x1, y1, rgb);
    g4_fill(pixels, width, height, stride, x1 - line > x0 ? x1 - line : x0, y0, x1, y1, rgb);
    if (!label || !label[0]) return;
    int64_t n = 0, tall = 9 * dot;
    while (label[n] && n < 200) n++;
    int64_t wide = (6 * n + 1) * dot;
    int64_t tx = x0 + wide > width ? width - wide : x0,
            ty = y0 - tall >= 0 ? y0 - tall : y0; /* above the box, or inside at its top */
    if (tx < 0) tx = 0;
    if (ty < 0) ty = 0;
    const uint8_t dark[3] = { 0, 0, 0 }, light[3] = { 255, 255, 255 };
    const uint8_t *ink = 299 * rgb[0] + 587 * rgb[1] + 114 * rgb[2] > 128000 ? dark : light;
    g4_fill(pixels, width, height, stride, tx, ty, tx + wide, ty + tall, rgb);
    for (int64_t i = 0; i < n; i++) {
        int c = (unsigned char)label[i];
        if (c >= 'a' && c <= 'z') c -= 32;
        if (c < 32 || c > 95) c = '?';
        for (int y = 0; y < 7; y++) {
            for (int x = 0; x < 5; x++) {
                if (!(g4_font[c - 32][y] >> (4 - x) & 1)) continue;
                int64_t px = tx + (1 + 6 * i + x) * dot, py = ty + (1 + y) * dot;
                g4_fill(pixels, width, height, stride, px, py, px + dot, py + dot, ink);
            }
        }
    }
}
