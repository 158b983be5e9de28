/* JSON: values, errors with line and column, depth, duplicates, quoting, every allocation failing. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "failing.h"
#include "chat/chat.h"
#include "test.h"

static void g4_dump(g4_buf *b, const g4_json *v)
{
    switch (v->kind) {
    case G4_JSON_NULL: g4_buf_str(b, "null"); break;
    case G4_JSON_FALSE: g4_buf_str(b, "false"); break;
    case G4_JSON_TRUE: g4_buf_str(b, "true"); break;
    case G4_JSON_NUMBER: g4_buf_add(b, v->text, v->text_len); break;
    case G4_JSON_STRING: g4_json_quote(b, v->text, v->text_len); break;
    default:
        g4_buf_str(b, v->kind == G4_JSON_ARRAY ? "[" : "{");
        for (const g4_json *c = v->child; c != NULL; c = c->next) {
            if (c != v->child) g4_buf_str(b, ",");
            if (v->kind == G4_JSON_OBJECT) {
                g4_json_quote(b, c->key, c->key_len);
                g4_buf_str(b, ":");
            }
            g4_dump(b, c);
        }
        g4_buf_str(b, v->kind == G4_JSON_ARRAY ? "]" : "}");
    }
}

static void g4_expect_same(const char *in, const char *want)
{
    g4_error err;
    g4_json *v;
    g4_status st = g4_json_parse(&v, NULL, in, strlen(in), &err);
    G4_EXPECT(st == G4_OK, "%s: %s", in, err.message);
    if (st != G4_OK) return;
    g4_buf b = { 0 };
    g4_dump(&b, v);
    G4_EXPECT(strcmp(b.data, want) == 0, "%s: got %s, want %s", in, b.data, want);
    g4_buf_free(&b);
    g4_json_free(NULL, v);
}

static void g4_expect_error(const char *in, size_t len, const char *want)
{
    g4_error err = { 0 };
    g4_json *v;
    g4_status st = g4_json_parse(&v, NULL, in, len, &err);
    G4_EXPECT(st == G4_ERR_FORMAT && v == NULL, "%.*s: status %d", (int)len, in, st);
    G4_EXPECT(strcmp(err.message, want) == 0, "%.*s: %s", (int)len, in, err.message);
    if (st == G4_OK) g4_json_free(NULL, v);
}

/* What may be as long as a file ends early when the call is halted, and leaves what was there. */
static void g4_test_halted(void)
{
    enum { LEN = 3 * G4_COPY_PIECE };
    g4_cancel cancel = { 0 };
    g4_halt halt;
    g4_halt_open(&halt);
    g4_halt_add_flag(&halt, &cancel);
    char *text = g4_alloc(NULL, 1, LEN), *copy = g4_alloc(NULL, 1, LEN);
    size_t size = 0, line = 0, column = 0;
    if (text == NULL || copy == NULL) exit(1);
    memset(text, 'A', LEN);
    G4_EXPECT(g4_copy(copy, text, LEN, &halt) && memcmp(copy, text, LEN) == 0, "a copy");
    G4_EXPECT(g4_base64_decode(text, LEN, (uint8_t *)copy, &size, &halt) && size == LEN / 4 * 3, "%zu bytes", size);
    G4_EXPECT(g4_percent_decode(text, LEN, copy, &size, &halt) && size == LEN, "%zu bytes", size);
    g4_text_place(text, LEN, LEN, &line, &column, &halt);
    G4_EXPECT(line == 1 && column == LEN + 1, "line %zu, column %zu", line, column);
    char *grown = g4_grow(NULL, copy, LEN, LEN + 1, 1, &halt);
    G4_EXPECT(grown != NULL && grown[0] == 'A' && grown[LEN - 1] == 'A' && grown[LEN] == 0, "grown");
    if (grown != NULL) copy = grown;
    g4_cancel_set(&cancel);
    memset(copy, 'B', LEN);
    G4_EXPECT(!g4_copy(copy, text, LEN, &halt) && copy[LEN - 1] == 'B', "a copy that is halted");
    G4_EXPECT(g4_grow(NULL, copy, LEN, LEN + 1, 1, &halt) == NULL && copy[LEN - 1] == 'B', "grown while halted");
    G4_EXPECT(!g4_base64_decode(text, LEN, (uint8_t *)copy, &size, &halt) && size < LEN / 4 * 3, "%zu bytes", size);
    G4_EXPECT(!g4_percent_decode(text, LEN, copy, &size, &halt) && size < LEN, "%zu bytes", size);
    g4_text_place(text, LEN, LEN, &line, &column, &halt);
    G4_EXPECT(column < LEN, "column %zu", column);
    g4_free(NULL, text);
    g4_free(NULL, copy);
}

int main(void)
{
    g4_expect_same("{}", "{}");
    g4_expect_same("\xef\xbb\xbf [ ] ", "[]");
    g4_expect_same(" [1, -0, 2.50e+3,true ,false,null,\"x\"]\n", "[1,-0,2.50e+3,true,false,null,\"x\"]");
    g4_expect_same("{\"a\":{\"b\":[{}]},\"c\":\"\"}", "{\"a\":{\"b\":[{}]},\"c\":\"\"}");
    g4_expect_same("\"\\u00e9\\ud83d\\ude00\\u0000\\n\\/\"", "\"\xc3\xa9\xf0\x9f\x98\x80\\u0000\\n/\"");
    g4_expect_same("{\"a\":1,\"b\":2,\"a\":{\"x\":3},\"c\":4,\"a\":5}", "{\"a\":5,\"b\":2,\"c\":4}");
    g4_expect_same("\"\x7f\"", "\"\\u007f\"");
    /* half of a surrogate pair is no character */
    g4_expect_same("\"\\ud800x\"", "\"\xef\xbf\xbdx\"");
    g4_expect_same("\"\\udc00\"", "\"\xef\xbf\xbd\"");
    g4_expect_same("\"\\ud83d\\ud83d\\ude00\"", "\"\xef\xbf\xbd\xf0\x9f\x98\x80\"");
    g4_expect_same("{\"\\udfff\":\"\\ud83d\\n\"}", "{\"\xef\xbf\xbd\":\"\xef\xbf\xbd\\n\"}");

#define G4_BAD(text, want) g4_expect_error(text, sizeof text - 1, "JSON, " want)
    G4_BAD("", "line 1 column 1: expected a value, found the end");
    G4_BAD("{\n  \"a\": 1,\n}", "line 3 column 1: expected a name in double quotes");
    G4_BAD("[1 2]", "line 1 column 4: expected ',' or ']'");
    G4_BAD("{\"\xc3\xa9\" 1}", "line 1 column 6: expected ':' after the name");
    G4_BAD("{\"a\":1", "line 1 column 7: expected ',' or '}'");
    G4_BAD("01", "line 1 column 1: a number must not start with 0");
    G4_BAD("-", "line 1 column 2: expected a digit");
    G4_BAD("1.", "line 1 column 3: expected a digit after the point");
    G4_BAD("1e+", "line 1 column 4: expected a digit in the exponent");
    G4_BAD("[nul]", "line 1 column 2: expected a value");
    G4_BAD("NaN", "line 1 column 1: expected a value");
    G4_BAD("1 x", "line 1 column 3: something follows the end of the document");
    G4_BAD("\"a", "line 1 column 1: this string has no closing quote");
    G4_BAD("\"a\\", "line 1 column 1: this string has no closing quote");
    G4_BAD("\"\n\"", "line 1 column 2: a control character in a string must be written as an escape");
    G4_BAD("\"\\x\"", "line 1 column 2: unknown escape in a string");
    G4_BAD("\"\\u12g4\"", "line 1 column 2: \\u needs four hexadecimal digits");
    G4_BAD("\"\\u12\"", "line 1 column 2: \\u needs four hexadecimal digits");
    g4_expect_error("\xff\xfe[\0]\0", 6, "JSON: this is UTF-16, and must be UTF-8");
    g4_expect_error("\xfe\xff\0[\0]", 6, "JSON: this is UTF-16, and must be UTF-8");
    G4_BAD("\"\xff\"", "line 1 column 2: malformed UTF-8");
    G4_BAD("\"\xc0\x80\"", "line 1 column 2: malformed UTF-8");
    G4_BAD("\"\xed\xa0\x80\"", "line 1 column 2: malformed UTF-8");

    g4_error err;
    g4_json *v;
    char deep[1100];
    memset(deep, '[', 512);
    memset(deep + 512, ']', 512);
    G4_EXPECT(g4_json_parse(&v, NULL, deep, 1024, &err) == G4_OK, "%s", err.message);
    g4_json_free(NULL, v);
    memset(deep, '[', 513);
    g4_expect_error(deep, 513, "JSON, line 1 column 513: nested more than 512 deep");

    const char *numbers = "[0.1, 123456789012345678901234567890, 1e400, -1.5e-400, 5e-324, 1.7976931348623157e308]";
    G4_EXPECT(g4_json_parse(&v, NULL, numbers, strlen(numbers), &err) == G4_OK, "%s", err.message);
    const double want[] = {
        0.1, 123456789012345678901234567890.0, (double)INFINITY, 0.0, 5e-324, 1.7976931348623157e308
    };
    int i = 0;
    for (const g4_json *c = v->child; c != NULL; c = c->next, i++) {
        double d = c->number - want[i];
        G4_EXPECT(d == 0.0 || (isinf(c->number) && isinf(want[i])), "number %d: %.17g", i, c->number);
    }
    g4_json_free(NULL, v);

    const char *doc = "{\"a\":[1,2,3],\"b\":null,\"a\":\"last\"}";
    G4_EXPECT(g4_json_parse(&v, NULL, doc, strlen(doc), &err) == G4_OK, "%s", err.message);
    const g4_json *a = g4_json_get(v, "a");
    G4_EXPECT(a != NULL && a->kind == G4_JSON_STRING && strcmp(a->text, "last") == 0 && v->child == a,
              "duplicate member");
    G4_EXPECT(g4_json_get(v, "c") == NULL && g4_json_get(a, "a") == NULL && g4_json_get(NULL, "a") == NULL,
              "absent members");
    g4_json_free(NULL, v);

    g4_buf b = { 0 };
    g4_json_quote(&b, "a\xff\xc3\xa9\"\\\t\x01\xe2\x82", 10);
    G4_EXPECT(strcmp(b.data, "\"a\xef\xbf\xbd\xc3\xa9\\\"\\\\\\t\\u0001\xef\xbf\xbd\xef\xbf\xbd\"") == 0, "%s", b.data);
    g4_buf_free(&b);

    /* Every allocation fails once: an error, and nothing stays allocated. The long string needs a chunk of its own. */
    char big[6000];
    int len = snprintf(big, sizeof big, "{\"k\":\"%05000d\",\"list\":[1,2,{\"a\":1,\"b\":2}]}", 7);
    g4_failing f = { 0, -1, 0 };
    g4_allocator al = g4_failing_allocator(&f);
    G4_EXPECT(g4_json_parse(&v, &al, big, (size_t)len, &err) == G4_OK, "%s", err.message);
    g4_json_free(&al, v);
    long calls = f.calls;
    G4_EXPECT(calls >= 4 && f.live == 0, "%ld calls, %ld live", calls, f.live);
    for (long k = 0; k < calls; k++) {
        f = (g4_failing) { 0, k, 0 };
        g4_status st = g4_json_parse(&v, &al, big, (size_t)len, &err);
        G4_EXPECT(st == G4_ERR_MEMORY && v == NULL && f.live == 0, "allocation %ld: %d, %ld live", k, st, f.live);
    }
    g4_test_halted();
    return g4_test_end();
}
