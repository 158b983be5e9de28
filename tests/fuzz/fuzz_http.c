/* libFuzzer entry for requests of HTTP, replayed by tests/test_http.c.
 *
 * Byte 0 of the input is the length of the pieces in which the rest is read. However it is split, it must be read the
 * same, and no more bytes of a body than are allowed. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/serve.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { G4_HTTP_MAX_BODY = 300 };

static size_t g4_http_read(http_request *r, const uint8_t *data, size_t size, size_t step)
{
    size_t at = 0;
    while (at < size && r->state != HTTP_COMPLETE && r->state != HTTP_REFUSED) {
        const size_t n = size - at < step ? size - at : step, used = http_push(r, (const char *)data + at, n);
        if (used > n || (used == 0 && r->state != HTTP_COMPLETE && r->state != HTTP_REFUSED)) __builtin_trap();
        at += used;
    }
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    http_request whole = { .max_body = G4_HTTP_MAX_BODY }, split = { .max_body = G4_HTTP_MAX_BODY };
    uint8_t *text = malloc(size); /* of its own, so that reading over its end is seen */
    if (text == NULL) return 0;
    memcpy(text, data + 1, size - 1);
    size_t at = 0;
    for (int i = 0; i < 4 && at < size - 1; i++) { /* requests of one connection */
        const size_t n = g4_http_read(&whole, text + at, size - 1 - at, size);
        const size_t m = g4_http_read(&split, text + at, size - 1 - at, data[0] % 9 + 1u);
        if (n != m || whole.state != split.state || whole.status != split.status || whole.n_fields != split.n_fields)
            __builtin_trap();
        if (whole.body.len != split.body.len || whole.body.len > G4_HTTP_MAX_BODY) __builtin_trap();
        if (whole.body.len > 0 && memcmp(whole.body.data, split.body.data, whole.body.len) != 0) __builtin_trap();
        if (whole.has_head && (whole.path[0] != '/' && whole.path[0] != '*')) __builtin_trap();
        for (int k = 0; k < whole.n_fields; k++)
            if (http_get(&whole, whole.fields[k].name) == NULL) __builtin_trap();
        if (whole.state != HTTP_COMPLETE) break;
        at += n;
        http_next(&whole);
        http_next(&split);
    }
    http_free(&whole);
    http_free(&split);
    free(text);
    return 0;
}
