/* boxes.c - boxes and points in an answer. The family answers "where" with JSON, fenced or not: {"box_2d": [y0, x0, y1,
 * x1], "label": ...} or {"point": [y, x], ...}, in a list or alone, y first, 0..1000 over the whole picture; sometimes
 * as bare lists of four or two numbers. Whatever else stands around is passed over, and an answer that was cut off
 * gives what it still holds. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <string.h>

#define G4_BOX_SCALE 1000.0    /* of the coordinates in an answer */
#define G4_BOX_MAX_BYTES 4096u /* of one box as JSON; what is longer can only contain boxes */

/* The numbers of a list into v; 0 when they are more than max, or not all numbers. */
static int g4_box_numbers(const g4_json *list, double *v, int max)
{
    int n = 0;
    for (const g4_json *c = g4_json_is(list, G4_JSON_ARRAY) ? list->child : NULL; c != NULL; c = c->next, n++) {
        if (c->kind != G4_JSON_NUMBER || n >= max) return 0;
        v[n] = c->number;
    }
    return n;
}

static int g4_box_pixel(double v, int size)
{
    const double p = v * size / G4_BOX_SCALE + 0.5;
    return p < 0 ? 0 : p > size ? size : (int)p;
}

static void g4_box_order(int *low, int *high)
{
    if (*high >= *low) return;
    const int swapped = *low;
    *low = *high;
    *high = swapped;
}

/* The list of coordinates that an object holds under one of the known names. */
static const g4_json *g4_box_coordinates(const g4_json *object)
{
    static const char *const names[] = { "box_2d", "bbox_2d", "point", "point_2d" };
    const g4_json *list = NULL;
    for (int i = 0; i < 4 && list == NULL; i++) list = g4_json_get(object, names[i]);
    return list;
}

/* What one JSON value says, if it is a box or a point; the label is still missing. */
static int g4_box_read(const g4_json *v, int width, int height, g4_box *out)
{
    double yx[4];
    const int n = g4_box_numbers(v->kind == G4_JSON_OBJECT ? g4_box_coordinates(v) : v, yx, 4);
    if (n != 4 && n != 2) return 0;
    out->is_point = n == 2;
    out->y0 = g4_box_pixel(yx[0], height);
    out->x0 = g4_box_pixel(yx[1], width);
    out->y1 = n == 2 ? out->y0 : g4_box_pixel(yx[2], height);
    out->x1 = n == 2 ? out->x0 : g4_box_pixel(yx[3], width);
    g4_box_order(&out->x0, &out->x1);
    g4_box_order(&out->y0, &out->y1);
    return 1;
}

/* Where each bracket closes (0: it does not), strings respected. stack has room for n. */
static void g4_box_brackets(const char *s, size_t n, size_t *close, size_t *stack)
{
    size_t depth = 0;
    int in_string = 0;
    for (size_t i = 0; i < n; i++) {
        const char ch = s[i];
        if (ch == '\n') in_string = 0; /* no JSON string goes over a line's end */
        if (in_string && ch == '\\')
            i++;
        else if (ch == '"' && depth > 0)
            in_string = !in_string;
        else if (in_string)
            continue;
        else if (ch == '{' || ch == '[')
            stack[depth++] = i;
        else if ((ch == '}' || ch == ']') && depth > 0 && s[stack[depth - 1]] == (ch == '}' ? '{' : '['))
            close[stack[--depth]] = i + 1;
    }
}

typedef struct {
    const g4_allocator *a;
    g4_box *boxes;
    int n, cap;
} g4_found_boxes;

/* The box that a JSON text is, if it is one, behind those so far. Returns whether it is; *failed: out of memory. */
static int g4_boxes_try(g4_found_boxes *out, const char *text, size_t len, int width, int height, int *failed)
{
    g4_json *v = NULL;
    g4_box box = { 0 };
    if (len > G4_BOX_MAX_BYTES) return 0;
    const g4_status st = g4_json_parse(&v, out->a, text, len, NULL);
    *failed = st == G4_ERR_MEMORY;
    if (st != G4_OK) return 0;
    const int is_box = g4_box_read(v, width, height, &box);
    if (is_box) {
        const g4_json *label = g4_json_get(v, "label");
        const size_t label_len = g4_json_is(label, G4_JSON_STRING) ? label->text_len : 0;
        g4_box *boxes = g4_array_grow(out->a, out->boxes, out->n, &out->cap, sizeof *boxes);
        if (boxes != NULL) out->boxes = boxes;
        box.label = g4_alloc(out->a, label_len + 1, 1);
        *failed = boxes == NULL || box.label == NULL;
        if (box.label != NULL && label_len > 0) memcpy(box.label, label->text, label_len);
        if (*failed)
            g4_free(out->a, box.label);
        else
            boxes[out->n++] = box;
    }
    g4_json_free(out->a, v);
    return is_box;
}

g4_status g4_boxes_read(g4_box **out, int *n, const char *text, size_t len, int width, int height,
                        const g4_allocator *a, g4_error *err)
{
    if (out == NULL || n == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "%s is NULL", out == NULL ? "out" : "n");
    *out = NULL;
    *n = 0;
    if (text == NULL && len > 0) return g4_fail(err, G4_ERR_ARGUMENT, "text is NULL");
    if (width <= 0 || height <= 0)
        return g4_fail(err, G4_ERR_ARGUMENT, "boxes in a picture of %d x %d pixels", width, height);
    g4_found_boxes found = { .a = a };
    size_t *close = g4_alloc(a, len + 1, sizeof *close), *stack = g4_alloc(a, len + 1, sizeof *stack);
    int failed = close == NULL || stack == NULL;
    if (!failed) g4_box_brackets(text, len, close, stack);
    for (size_t i = 0; i < len && !failed;) { /* what is no box itself is entered */
        const size_t end = close[i];
        i = end > 0 && g4_boxes_try(&found, text + i, end - i, width, height, &failed) ? end : i + 1;
    }
    g4_free(a, close);
    g4_free(a, stack);
    if (failed) {
        g4_boxes_free(found.boxes, found.n, a);
        return g4_fail(err, G4_ERR_MEMORY, "no memory for the boxes of an answer");
    }
    *out = found.boxes;
    *n = found.n;
    return G4_OK;
}

void g4_boxes_free(g4_box *boxes, int n, const g4_allocator *a)
{
    for (int i = 0; i < n && boxes != NULL; i++) g4_free(a, boxes[i].label);
    g4_free(a, boxes);
}
