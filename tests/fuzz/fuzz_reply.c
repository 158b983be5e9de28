/* Fuzz answers: any bytes, with the written markers as control tokens, or any tokens of a vocabulary. The parts must
 * not depend on how the answer is split, hold no control token, and a call's arguments must be one JSON object. As
 * messages of a conversation they must render with every template, and what is rendered must read as what was said.
 *
 * Byte 0 of the input: bit 0 in a thought, bits 1 to 3 the size of the pieces, bits 4 and 5 the template, bit 6 calls
 * get results, bit 7 the rest is not an answer but tokens of one, two bytes each, or, with bit 1, the arguments of a
 * call, which must come back from a prompt. Run from the repository root. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "answers.h"
#include "vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void g4_fuzz_demand(int is_so)
{
    if (!is_so) __builtin_trap();
}

/* ---- What was rendered reads as what was said -------------------------------------------------------- */

static int g4_fuzz_is_simple(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!g4_is_letter(s[i]) && !g4_is_digit(s[i]) && s[i] != '_') return 0;
    return n > 0;
}

/* Keys that need no quotes, which templates do not give them; numbers that are numbers; no deeper than calls are read.
 */
static int g4_fuzz_is_plain(const g4_json *v, int depth)
{
    if (v->kind == G4_JSON_NUMBER) return v->number <= 1e300 && v->number >= -1e300;
    if (depth > 50) return 0;
    for (const g4_json *c = v->child; c != NULL; c = c->next) {
        if (v->kind == G4_JSON_OBJECT && !g4_fuzz_is_simple(c->key, c->key_len)) return 0;
        if (!g4_fuzz_is_plain(c, depth + 1)) return 0;
    }
    return 1;
}

/* The first model turn of a rendered conversation, up to its end or the first result. */
static g4_response *g4_fuzz_read_turn(const g4_rendered *r)
{
    g4_response *read;
    int i = 0, is_begun = 0;
    size_t pos = 0;
    if (g4_response_new(&read, NULL, NULL, 0, NULL, NULL, NULL) != G4_OK) abort();
    for (; i < r->n_marks; i++) {
        const g4_mark *m = &r->marks[i];
        const char *name = r->text.data + m->offset;
        if (is_begun) {
            g4_response_feed(read, G4_CONTROL_NONE, r->text.data + pos, m->offset - pos);
            g4_feed_all(read, name, m->len, 1);
            if (m->len == 7 && memcmp(name, "<turn|>", 7) == 0) break;
        }
        pos = m->offset + m->len;
        if (!is_begun && m->len == 7 && memcmp(name, "<|turn>", 7) == 0 &&
            memcmp(r->text.data + pos, "model\n", 6) == 0) {
            is_begun = 1;
            pos += 6;
        }
    }
    if (g4_response_finish(read, NULL) != G4_OK) abort();
    return read;
}

/* The calls that can be compared: their number, and whether they are all. */
static int g4_fuzz_calls(const g4_part *p, int n, int *is_plain, int *n_calls)
{
    *n_calls = 0;
    *is_plain = 1;
    for (int i = 0; i < n; i++) {
        g4_json *v = NULL;
        if (p[i].kind != G4_PART_TOOL_CALL || p[i].incomplete) continue;
        ++*n_calls;
        g4_fuzz_demand(g4_json_parse(&v, NULL, p[i].text, p[i].text_len, NULL) == G4_OK);
        *is_plain = *is_plain && g4_fuzz_is_simple(p[i].name, strlen(p[i].name)) && g4_fuzz_is_plain(v, 0);
        g4_json_free(NULL, v);
    }
    return *n_calls;
}

static const g4_part *g4_fuzz_next_call(const g4_part *p, int n, int *i)
{
    while (*i < n && (p[*i].kind != G4_PART_TOOL_CALL || p[*i].incomplete)) ++*i;
    return *i < n ? &p[(*i)++] : NULL;
}

static void g4_fuzz_compare_calls(const g4_part *p, int n, const g4_part *q, int n_read)
{
    int i = 0, k = 0;
    const g4_part *a, *b;
    while ((a = g4_fuzz_next_call(p, n, &i)) != NULL) {
        g4_json *va = NULL, *vb = NULL;
        b = g4_fuzz_next_call(q, n_read, &k);
        g4_fuzz_demand(b != NULL && strcmp(a->name, b->name) == 0);
        g4_fuzz_demand(g4_json_parse(&va, NULL, a->text, a->text_len, NULL) == G4_OK &&
                       g4_json_parse(&vb, NULL, b->text, b->text_len, NULL) == G4_OK);
        g4_fuzz_demand(g4_json_equal(va, vb));
        g4_json_free(NULL, va);
        g4_json_free(NULL, vb);
    }
    g4_fuzz_demand(g4_fuzz_next_call(q, n_read, &k) == NULL);
}

/* All text of an answer; 0 if there is what a template takes for a thought and leaves out. */
static int g4_fuzz_text(g4_buf *b, const g4_part *p, int n)
{
    for (int i = 0; i < n; i++)
        if (p[i].kind == G4_PART_TEXT) g4_buf_add(b, p[i].text, p[i].text_len);
    return b->len == 0 || memchr(b->data, '<', b->len) == NULL;
}

/* ---- The answer as a message -------------------------------------------------------------------------- */

static void g4_fuzz_render(const g4_part *p, int n, int which, int with_results)
{
    enum { MAX_CALLS = 8 };
    const g4_part ask = { .kind = G4_PART_TEXT, .text = "Q" };
    g4_part results[MAX_CALLS];
    int n_calls, is_plain, n_results = 0;
    g4_fuzz_calls(p, n, &is_plain, &n_calls);
    for (; with_results && n_results < n_calls && n_results < MAX_CALLS; n_results++)
        results[n_results] = (g4_part) { .kind = G4_PART_TOOL_RESULT, .text = "{\"ok\": true}" };
    g4_message m[4] = { { .role = G4_ROLE_USER, .parts = &ask, .n_parts = 1 },
                        { .role = G4_ROLE_MODEL, .parts = p, .n_parts = n } };
    int n_messages = 2;
    if (n_results > 0) m[n_messages++] = (g4_message) { .role = G4_ROLE_TOOL, .parts = results, .n_parts = n_results };
    m[n_messages++] = m[0];
    const g4_part **media = calloc((size_t)n + 20, sizeof *media);
    g4_arena arena = { 0 };
    g4_json *list;
    g4_error err = { G4_OK, "" };
    g4_rendered rendered = { 0 };
    if (media == NULL) abort();
    g4_fuzz_demand(g4_messages_build(&list, media, &arena, m, n_messages, NULL, &err) == G4_OK);
    const g4_render_input in = { .messages = list, .kind = (g4_template)(G4_TEMPLATE_31B_2026_07 + which % 3) };
    g4_fuzz_demand(g4_render(&rendered, NULL, &in, NULL, &err) == G4_OK);
    g4_response *read = g4_fuzz_read_turn(&rendered);
    int n_read;
    const g4_part *q = g4_response_parts(read, &n_read);
    if (is_plain) g4_fuzz_compare_calls(p, n, q, n_read);
    g4_buf a = { 0 }, b = { 0 };
    if (n_calls == 0 && g4_fuzz_text(&a, p, n) && g4_fuzz_text(&b, q, n_read))
        g4_fuzz_demand(a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0));
    g4_buf_free(&a);
    g4_buf_free(&b);
    g4_response_close(read);
    g4_rendered_free(&rendered);
    g4_arena_free(&arena);
    free(media);
}

/* ---- Reading the answer -------------------------------------------------------------------------------- */

static void g4_fuzz_check_parts(const g4_part *p, int n)
{
    for (int i = 0; i < n; i++) {
        g4_json *v = NULL;
        if (p[i].incomplete) g4_fuzz_demand(i == n - 1 || p[i].kind == G4_PART_TOOL_CALL);
        if (p[i].kind != G4_PART_TOOL_CALL) continue;
        g4_fuzz_demand(p[i].incomplete || p[i].name[0] != '\0');
        g4_fuzz_demand(g4_json_parse(&v, NULL, p[i].text, p[i].text_len, NULL) == G4_OK && v->kind == G4_JSON_OBJECT);
        g4_json_free(NULL, v);
    }
}

static void g4_fuzz_finish(g4_buf *b, g4_response *r, int which, int with_results)
{
    int n;
    g4_fuzz_demand(g4_response_finish(r, NULL) == G4_OK);
    const g4_part *p = g4_response_parts(r, &n);
    g4_fuzz_check_parts(p, n);
    g4_fuzz_render(p, n, which, with_results);
    g4_show_parts(b, r);
    g4_response_close(r);
}

static void g4_fuzz_bytes(g4_buf *b, const uint8_t *data, size_t size, int head, size_t piece)
{
    g4_response *r;
    if (g4_response_new(&r, NULL, NULL, head & 1, NULL, NULL, NULL) != G4_OK) return;
    g4_feed_all(r, (const char *)data, size, piece);
    g4_fuzz_finish(b, r, head >> 4 & 3, head >> 6 & 1);
}

static void g4_fuzz_tokens(g4_buf *b, const g4_tokenizer *t, const uint8_t *data, size_t size, int head)
{
    static const char *const names[] = {
        "<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>", "<|\"|>", "<turn|>"
    };
    g4_response *r;
    if (g4_response_new(&r, NULL, t, head & 1, NULL, NULL, NULL) != G4_OK) return;
    for (size_t i = 0; i + 1 < size; i += 2) {
        g4_token id = (g4_token)(data[i] | data[i + 1] << 8);
        const size_t name = (size_t)data[i] % 16;
        if (data[i + 1] == 0xff && name < sizeof names / sizeof names[0])
            id = g4_tokenizer_special(t, names[name], strlen(names[name]));
        g4_response_push(r, id < 0 ? id : (g4_token)((uint32_t)id % t->n_vocab));
    }
    g4_fuzz_finish(b, r, head >> 4 & 3, head >> 6 & 1);
}

/* ---- Arguments there and back ------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *data;
    size_t size;
} g4_fuzz_input;

static unsigned g4_fuzz_byte(g4_fuzz_input *in)
{
    if (in->size == 0) return 0;
    in->size--;
    return *in->data++;
}

static void g4_fuzz_value(g4_fuzz_input *in, g4_buf *b, int depth);

static void g4_fuzz_members(g4_fuzz_input *in, g4_buf *b, int depth, int is_list)
{
    const unsigned n = g4_fuzz_byte(in) % 4;
    g4_buf_str(b, is_list ? "[" : "{");
    for (unsigned i = 0; i < n; i++) {
        g4_buf_str(b, i > 0 ? "," : "");
        if (!is_list) g4_buf_fmt(b, "\"%c%u\":", 'A' + (int)(g4_fuzz_byte(in) % 6), i);
        g4_fuzz_value(in, b, depth + 1);
    }
    g4_buf_str(b, is_list ? "]" : "}");
}

static void g4_fuzz_value(g4_fuzz_input *in, g4_buf *b, int depth)
{
    static const char *const plain[] = { "null", "true",    "false",
                                         "0",    "-1",      "1.5",
                                         "1e3",  "-2.5E-7", "12345678901234567890" };
    const unsigned what = g4_fuzz_byte(in);
    if (what % 4 == 0 || depth > 20) {
        g4_buf_str(b, plain[what / 4 % (sizeof plain / sizeof plain[0])]);
    } else if (what % 4 == 1) {
        const uint8_t *text = in->data;
        size_t n = 0;
        while (n < in->size && text[n] != 0) n++;
        g4_json_quote(b, (const char *)text, n);
        in->data += n;
        in->size -= n;
        g4_fuzz_byte(in);
    } else {
        g4_fuzz_members(in, b, depth, what % 4 == 2);
    }
}

static void g4_fuzz_arguments(const uint8_t *data, size_t size, int head)
{
    g4_fuzz_input in = { data, size };
    g4_buf arguments = { 0 };
    g4_fuzz_members(&in, &arguments, 0, 0);
    const g4_part call = {
        .kind = G4_PART_TOOL_CALL, .name = "get_x", .text = arguments.data, .text_len = arguments.len
    };
    g4_fuzz_render(&call, 1, head >> 4 & 3, head >> 6 & 1);
    g4_buf_free(&arguments);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static g4_tokenizer vocabulary;
    static uint8_t *block;
    if (size < 1) return 0;
    g4_buf a = { 0 }, b = { 0 };
    if ((data[0] & 0x82) == 0x82) {
        g4_fuzz_arguments(data + 1, size - 1, data[0]);
    } else if ((data[0] & 0x80) != 0) {
        if (block == NULL) block = g4_vocab_open(&vocabulary, "tests/data/tokenizer_small.g4");
        if (block == NULL) abort();
        g4_fuzz_tokens(&a, &vocabulary, data + 1, size - 1, data[0]);
    } else {
        g4_fuzz_bytes(&a, data + 1, size - 1, data[0], SIZE_MAX);
        g4_fuzz_bytes(&b, data + 1, size - 1, data[0], 1u + (data[0] >> 1) % 8);
        g4_fuzz_demand(a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0));
    }
    g4_buf_free(&a);
    g4_buf_free(&b);
    return 0;
}
