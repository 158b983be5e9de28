/* draw.c - frames and their labels, drawn into RGB pixels. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "media.h"

/* ---- Letters -------------------------------------------------------------------------------- */

#define G4_FONT_FIRST 32 /* the blank */
#define G4_FONT_LAST 95  /* the underscore */
#define G4_FONT_WIDTH 5
#define G4_FONT_HEIGHT 7

/* Characters 32 to 95 in 7 rows of 5 bits, the left column highest. Small letters are drawn as capitals. */
static const uint8_t g4_font[G4_FONT_LAST - G4_FONT_FIRST + 1][G4_FONT_HEIGHT] = {
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

static const uint8_t *g4_glyph(char letter)
{
    int c = (unsigned char)letter;
    if (c >= 'a' && c <= 'z') c += 'A' - 'a';
    if (c < G4_FONT_FIRST || c > G4_FONT_LAST) c = '?';
    return g4_font[c - G4_FONT_FIRST];
}

/* ---- Areas ---------------------------------------------------------------------------------- */

typedef struct {
    uint8_t *pixels; /* (height, stride bytes), RGB */
    int64_t width, height;
    size_t stride;
} g4_canvas;

/* Fill [x0, x1) x [y0, y1) as far as it lies in the picture. */
static void g4_draw_fill(const g4_canvas *c, int64_t x0, int64_t y0, int64_t x1, int64_t y1, const uint8_t rgb[3])
{
    for (int64_t y = y0 < 0 ? 0 : y0; y < y1 && y < c->height; y++) {
        for (int64_t x = x0 < 0 ? 0 : x0; x < x1 && x < c->width; x++)
            memcpy(c->pixels + (size_t)y * c->stride + 3 * (size_t)x, rgb, 3);
    }
}

static int64_t g4_draw_min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t g4_draw_max(int64_t a, int64_t b) { return a > b ? a : b; }

static void g4_draw_frame(const g4_canvas *c, const int box[4], int64_t line, const uint8_t rgb[3])
{
    const int64_t x0 = box[0], y0 = box[1], x1 = box[2], y1 = box[3];
    g4_draw_fill(c, x0, y0, x1, g4_draw_min(y0 + line, y1), rgb);
    g4_draw_fill(c, x0, g4_draw_max(y1 - line, y0), x1, y1, rgb);
    g4_draw_fill(c, x0, y0, g4_draw_min(x0 + line, x1), y1, rgb);
    g4_draw_fill(c, g4_draw_max(x1 - line, x0), y0, x1, y1, rgb);
}

/* A letter whose upper left corner is at x, y, in dots of `dot` pixels. */
static void g4_draw_letter(const g4_canvas *c, char letter, int64_t x, int64_t y, int64_t dot, const uint8_t rgb[3])
{
    const uint8_t *rows = g4_glyph(letter);
    for (int row = 0; row < G4_FONT_HEIGHT; row++) {
        for (int column = 0; column < G4_FONT_WIDTH; column++) {
            if (!(rows[row] >> (G4_FONT_WIDTH - 1 - column) & 1)) continue;
            const int64_t left = x + column * dot, top = y + row * dot;
            g4_draw_fill(c, left, top, left + dot, top + dot, rgb);
        }
    }
}

/* A label on a ground of that colour above the corner x, y, or below it at the top of the picture; a dot of margin
 * around the letters and between them. */
static void g4_draw_label(const g4_canvas *c, const char *label, int64_t x, int64_t y, int64_t dot,
                          const uint8_t rgb[3])
{
    const uint8_t dark[3] = { 0, 0, 0 }, light[3] = { 255, 255, 255 };
    const int64_t n = (int64_t)strnlen(label, 200), advance = (G4_FONT_WIDTH + 1) * dot;
    const int64_t width = n * advance + dot, height = (G4_FONT_HEIGHT + 2) * dot;
    const int64_t left = g4_draw_max(0, g4_draw_min(x, c->width - width));
    const int64_t top = g4_draw_max(0, y - height >= 0 ? y - height : y);
    const int is_bright = 299 * rgb[0] + 587 * rgb[1] + 114 * rgb[2] > 128000; /* its luma, in thousandths */
    g4_draw_fill(c, left, top, left + width, top + height, rgb);
    for (int64_t i = 0; i < n; i++)
        g4_draw_letter(c, label[i], left + dot + i * advance, top + dot, dot, is_bright ? dark : light);
}

void g4_draw_box(uint8_t *pixels, int width, int height, size_t stride, const int box[4], const char *label,
                 const uint8_t rgb[3])
{
    if (!pixels || !box || !rgb || width <= 0 || height <= 0 || (stride && stride / 3 < (size_t)width)) return;
    const g4_canvas canvas = { pixels, width, height, stride ? stride : (size_t)width * 3 };
    const int side = g4_min_int(width, height); /* lines and letters grow with the picture */
    g4_draw_frame(&canvas, box, g4_max_int(1, side / 240), rgb);
    if (label && label[0]) g4_draw_label(&canvas, label, box[0], box[1], g4_max_int(1, side / 320), rgb);
}
