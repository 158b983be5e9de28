/* Fuzz the reply parser: any bytes, with the written markers as control tokens. The parts must not depend on how the
 * reply is split, hold no control token, and a call's arguments must be one JSON object. Byte 0 of the input chooses
 * the first state and the size of the pieces. */
#include <stdint.h>
#include <string.h>

#include "answers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void g4_fuzz_parts(g4_buf *b, const uint8_t *data, size_t size, int in_thought, size_t piece)
{
    g4_response *r;
    if (g4_response_new(&r, NULL, NULL, in_thought, NULL, NULL, NULL) != G4_OK) return;
    g4_feed_all(r, (const char *)data, size, piece);
    if (g4_response_finish(r, NULL) == G4_OK) {
        int n;
        const g4_part *p = g4_response_parts(r, &n);
        for (int i = 0; i < n; i++) {
            g4_json *v = NULL;
            if (p[i].kind == G4_PART_TOOL_CALL &&
                (g4_json_parse(&v, NULL, p[i].text, p[i].text_len, NULL) != G4_OK || v->kind != G4_JSON_OBJECT))
                __builtin_trap();
            g4_json_free(NULL, v);
        }
        g4_show_parts(b, r);
    }
    g4_response_close(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    g4_buf a = { 0 }, b = { 0 };
    g4_fuzz_parts(&a, data + 1, size - 1, data[0] & 1, SIZE_MAX);
    g4_fuzz_parts(&b, data + 1, size - 1, data[0] & 1, 1u + (data[0] >> 1) % 8);
    if (a.len != b.len || (a.len > 0 && memcmp(a.data, b.data, a.len) != 0)) __builtin_trap();
    g4_buf_free(&a);
    g4_buf_free(&b);
    return 0;
}
