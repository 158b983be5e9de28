/* libFuzzer entry for forms, replayed by tests/test_multipart.c.
 *
 * The first line of the input is the type of the content, the rest the body. Parts lie in the body, one behind the
 * other, and have names. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/serve.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *line = size > 0 ? memchr(data, '\n', size) : NULL;
    if (line == NULL) return 0;
    const size_t n = (size_t)(line - data), len = size - n - 1;
    char *type = malloc(n + 1), *body = malloc(len > 0 ? len : 1); /* of their own, so that reading over is seen */
    if (type == NULL || body == NULL) __builtin_trap();
    memcpy(type, data, n);
    type[n] = '\0';
    memcpy(body, line + 1, len);
    multipart m;
    multipart_part part;
    if (multipart_open(&m, type, body, len)) {
        const char *last = body;
        int more;
        while ((more = multipart_next(&m, &part)) > 0) {
            if (part.data < last || part.data + part.len > body + len || part.name[0] == '\0') __builtin_trap();
            last = part.data + part.len;
        }
        if (more == 0 && multipart_next(&m, &part) != 0) __builtin_trap();
    }
    free(type);
    free(body);
    return 0;
}
