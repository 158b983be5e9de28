/* Fuzz requests in OpenAI's format, as a stranger may send them: whatever is in them, they are read to a conversation
 * and options that hold together, or refused in one line that names a field. What the options say as JSON can be read
 * again. No file is opened. Byte 0 chooses the template. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/requests.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* As a line of a batch file. */
static void g4_fuzz_line(const char *text, size_t size)
{
    g4_batch_line line;
    g4_error err = { 0 };
    const g4_status st = g4_batch_line_read(&line, text, size, NULL, NULL, &err);
    if (st != G4_OK) g4_fuzz_refusal(st, &err);
    g4_fuzz_must(st == G4_OK || line.custom_id == NULL);
    g4_batch_line_close(&line, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const templates[] = { "31b-2026-07", "e2b-2026-07", "31b-2026-04" };
    g4_request *r;
    g4_error err = { 0 };
    g4_fault fault;
    if (size < 1) return 0;
    char *text = malloc(size); /* of its own, so that reading over its end is seen */
    if (text == NULL) return 0;
    memcpy(text, data + 1, size - 1);
    g4_fuzz_line(text, size - 1);
    const g4_status st = g4_request_read(&r, text, size - 1, NULL, &fault, &err);
    memset(text, 'x', size); /* the request has copies */
    if (st != G4_OK) {
        g4_fuzz_refusal(st, &err);
        g4_fuzz_must(memchr(fault.param, '\0', sizeof fault.param) != NULL);
    } else {
        g4_fuzz_info(g4_request_get(r));
        g4_fuzz_chat(r, templates[data[0] % 3]);
    }
    g4_request_close(r);
    free(text);
    return 0;
}
