/* Fuzz answers about pictures: the boxes and points that are found in a text lie within the picture and have labels.
 * Replayed by tests/test_boxes.c. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "chat/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { WIDTH = 640, HEIGHT = 480 };
    g4_box *b;
    int n;
    char *text = malloc(size > 0 ? size : 1); /* of its own, so that reading over its end is seen */
    if (text == NULL) return 0;
    if (size > 0) memcpy(text, data, size);
    if (g4_boxes_read(&b, &n, text, size, WIDTH, HEIGHT, NULL, NULL) != G4_OK) __builtin_trap();
    for (int i = 0; i < n; i++) {
        const int is_within = b[i].x0 >= 0 && b[i].x0 <= b[i].x1 && b[i].x1 <= WIDTH && b[i].y0 >= 0 &&
                              b[i].y0 <= b[i].y1 && b[i].y1 <= HEIGHT;
        if (!is_within || b[i].label == NULL) __builtin_trap();
    }
    g4_boxes_free(b, n, NULL);
    free(text);
    return 0;
}
