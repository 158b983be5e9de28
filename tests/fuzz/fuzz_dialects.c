/* Fuzz what strangers send to /v1/messages and /v1/responses, and what models answer: a request is read to what holds
 * together or refused in one line that names a member; the events of an answer are whole, each of them JSON, and say
 * together what the finished answer says.
 *
 * Byte 0 of the input: bits 0 and 1 the dialect, bits 2 and 3 the template; or bit 7 the rest is an answer, bits 2 to 4
 * the size of the pieces, and when that is 8 strings end the answer, bit 5 in a thought, bit 6 calls come whole. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "fuzz/requests.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- Requests -------------------------------------------------------------------------------------- */

static void g4_fuzz_request(const uint8_t *data, size_t size, int head)
{
    static const char *const templates[] = { "31b-2026-07", "e2b-2026-07", "31b-2026-04" };
    g4_request *r;
    g4_error err = { 0 };
    g4_fault fault;
    char *text = malloc(size + 1); /* of its own, so that reading over its end is seen */
    if (text == NULL) return;
    memcpy(text, data, size);
    const g4_status st = g4_request_read_as(&r, (g4_dialect)(head % 5), text, size, NULL, &fault, &err);
    memset(text, 'x', size); /* the request has copies */
    if (st != G4_OK) {
        g4_fuzz_refusal(st, &err);
        g4_fuzz_must(memchr(fault.param, '\0', sizeof fault.param) != NULL);
    } else {
        const g4_request_info *info = g4_request_get(r);
        g4_fuzz_info(info);
        g4_fuzz_must(info->n_prompts > 0 || info->dialect != G4_DIALECT_COMPLETIONS);
        g4_fuzz_must((info->repeats != NULL) == (info->dialect == G4_DIALECT_RESPONSES));
        g4_fuzz_chat(r, templates[(head >> 2 & 3) % 3]);
    }
    g4_request_close(r);
    free(text);
}

/* ---- Answers --------------------------------------------------------------------------------------- */

enum { G4_FUZZ_CALLS = 64 };
typedef struct { /* what the events of a chat say */
    g4_buf text, thought, name[G4_FUZZ_CALLS], arguments[G4_FUZZ_CALLS];
    int n_calls;
} g4_fuzz_said;

/* A piece of text, which is not empty but in the first delta. */
static void g4_fuzz_gather(g4_buf *b, const g4_json *v, int may_be_empty)
{
    if (v == NULL) return;
    g4_fuzz_must(v->kind == G4_JSON_STRING && (may_be_empty || v->text_len > 0));
    g4_buf_add(b, v->text, v->text_len);
}

static void g4_fuzz_chunk(g4_fuzz_said *said, const g4_json *event, int is_first)
{
    const g4_json *choice = g4_json_get(event, "choices")->child, *delta = g4_json_get(choice, "delta");
    const g4_json *calls = g4_json_get(delta, "tool_calls");
    g4_fuzz_must(delta != NULL && (is_first || delta->child == NULL || delta->child->next == NULL));
    g4_fuzz_gather(&said->text, g4_json_get(delta, "content"), is_first);
    g4_fuzz_gather(&said->thought, g4_json_get(delta, "reasoning_content"), 0);
    if (calls == NULL) return;
    const g4_json *call = calls->child, *function = g4_json_get(call, "function"),
                  *name = g4_json_get(function, "name");
    const int i = (int)g4_json_get(call, "index")->number;
    g4_fuzz_must(call->next == NULL && i == said->n_calls - (name == NULL));
    if (i >= G4_FUZZ_CALLS) return;
    if (name != NULL) g4_fuzz_gather(&said->name[said->n_calls++], name, 1);
    g4_fuzz_gather(&said->arguments[i], g4_json_get(function, "arguments"), name != NULL);
}

static int g4_fuzz_is(const g4_buf *b, const char *s, size_t n)
{
    return b->len == n && (n == 0 || memcmp(b->data, s, n) == 0);
}

/* What was said is what the parts say; of calls that were cut, as far as they were told. */
static void g4_fuzz_compare(const g4_fuzz_said *said, const g4_part *p, int n)
{
    g4_buf texts[2] = { { 0 } };
    int k = 0;
    for (int i = 0; i < n; i++) {
        if (p[i].kind != G4_PART_TOOL_CALL) {
            g4_buf quoted = { 0 }; /* what is no UTF-8 becomes what JSON has for it */
            g4_json *v = NULL;
            g4_json_quote(&quoted, p[i].text, p[i].text_len);
            g4_fuzz_must(g4_json_parse(&v, NULL, quoted.data, quoted.len, NULL) == G4_OK);
            g4_buf_add(&texts[p[i].kind == G4_PART_THOUGHT], v->text, v->text_len);
            g4_json_free(NULL, v);
            g4_buf_free(&quoted);
            continue;
        }
        if (p[i].incomplete || k >= G4_FUZZ_CALLS) continue;
        while (k < said->n_calls && !g4_fuzz_is(&said->arguments[k], p[i].text, p[i].text_len)) k++;
        g4_fuzz_must(k < said->n_calls);
        k++;
    }
    g4_fuzz_must(g4_fuzz_is(&said->text, texts[0].data, texts[0].len) &&
                 g4_fuzz_is(&said->thought, texts[1].data, texts[1].len));
    g4_buf_free(&texts[0]);
    g4_buf_free(&texts[1]);
}

static int g4_fuzz_event(void *user, const void *data, size_t size)
{
    g4_fuzz_must(size > 2 && memcmp((const char *)data + size - 2, "\n\n", 2) == 0);
    g4_buf_add(user, data, size);
    return 0;
}

static int g4_fuzz_whole(void *user, const void *data, size_t size)
{
    g4_buf_add(user, data, size);
    return 0;
}

/* Every event is JSON behind "data: "; those of a chat go into what it says. */
static void g4_fuzz_events(g4_buf *all, g4_fuzz_said *said)
{
    char *line = all->data, *end;
    int n = 0;
    for (; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        g4_json *v = NULL;
        if (strncmp(line, "data: {", 7) != 0) continue;
        g4_fuzz_must(g4_json_parse(&v, NULL, line + 6, (size_t)(end - line) - 6, NULL) == G4_OK);
        if (said != NULL) g4_fuzz_chunk(said, v, n == 0);
        g4_json_free(NULL, v);
        n++;
    }
    g4_fuzz_must(*line == '\0');
}

static void g4_fuzz_answer(const uint8_t *data, size_t size, int head)
{
    g4_buf all = { 0 };
    g4_fuzz_said said = { 0 };
    g4_answer c = { .id = 1, .created = 1, .dialect = (g4_dialect)(head % 3) };
    const g4_stream_options opt = { .answer = &c, .write = g4_fuzz_event, .user = &all };
    g4_stream *s;
    g4_response *r;
    if (g4_stream_open(&s, &opt, NULL, NULL) != G4_OK) abort();
    if (g4_response_new(&r, NULL, NULL, head >> 5 & 1, g4_stream_part, s, NULL) != G4_OK) abort();
    static const char *const stops[] = { "ab", " \n", "e" };
    const int n_stops = (head & 0x1c) == 0x1c ? 3 : 0;
    if ((head & 0x40) == 0) g4_response_stream_calls(r);
    g4_fuzz_must(g4_response_stop_at(r, stops, n_stops, NULL) == G4_OK);
    g4_feed_all(r, (const char *)data, size, 1u + (unsigned)(head >> 2 & 7));
    g4_fuzz_must(g4_response_finish(r, NULL) == G4_OK);
    c.parts = g4_response_parts(r, &c.n_parts);
    for (int i = 0; i < c.n_parts && n_stops > 0; i++)
        g4_fuzz_must(c.parts[i].kind != G4_PART_TEXT || strstr(c.parts[i].text, "ab") == NULL);
    g4_fuzz_must(g4_stream_end(s, &c, NULL) == G4_OK);
    g4_fuzz_events(&all, c.dialect == G4_DIALECT_OPENAI ? &said : NULL);
    if (c.dialect == G4_DIALECT_OPENAI) g4_fuzz_compare(&said, c.parts, c.n_parts);
    all.len = 0;
    g4_buf_str(&all, "data: ");
    g4_fuzz_must(g4_answer_write(&c, g4_fuzz_whole, &all, NULL, NULL) == G4_OK);
    g4_fuzz_events(&all, NULL);
    g4_stream_close(s);
    g4_response_close(r);
    g4_buf_free(&all);
    g4_buf_free(&said.text);
    g4_buf_free(&said.thought);
    for (int i = 0; i < G4_FUZZ_CALLS; i++) {
        g4_buf_free(&said.name[i]);
        g4_buf_free(&said.arguments[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    if ((data[0] & 0x80) != 0)
        g4_fuzz_answer(data + 1, size - 1, data[0]);
    else
        g4_fuzz_request(data + 1, size - 1, data[0]);
    return 0;
}
