/* Replies taken apart: thoughts, text, calls; the forms models really write; any split gives the same parts;
 * allocations fail. */
#include <stdlib.h>

#include "failing.h"
#include "fuzz/fuzz_reply.c"
#include "replay.h"
#include "test.h"

typedef struct {
    const char *reply, *parts;
    int in_thought;
} g4_case;

static const g4_case g4_cases[] = {
    { "Hello.", "text{Hello.}", 0 },
    { "  Hello there. \n", "text{Hello there.}", 0 },
    { "<|channel>thought\nLet me see.\nYes.\n<channel|>It is 4.", "thought{Let me see.\nYes.}text{It is 4.}", 0 },
    { "<|channel>thought\n<channel|>It is 4.", "text{It is 4.}", 0 },
    { "<|channel>thought<channel|>\n\nIt is 4.", "text{It is 4.}", 0 },
    { "<|channel><channel|>4", "text{4}", 0 },
    { "<|channel>thought 2 + 2\n<channel|>4", "thought{ 2 + 2}text{4}", 0 },
    { "<|channel>2 + 2\n<channel|>4", "thought{2 + 2}text{4}", 0 },
    { "Still thinking.\n<channel|>Done.", "thought{Still thinking.}text{Done.}", 1 },
    { "Still thinking", "thought{Still thinking}!", 1 },
    { "<channel|>Done.", "text{Done.}", 1 },
    { "One<channel|> two", "text{One two}", 0 },
    { "<|channel>thought\nA\n<|channel>thought\nB\n<channel|>C", "thought{A\nB}text{C}", 0 },
    { "a\n\n<|channel>thought\nb<channel|>\nc", "text{a}thought{b}text{c}", 0 },
    { "<|channel>thought\n \n\n<channel|>x", "thought{ \n}text{x}", 0 },
    { "<|channel>thought\ncut off", "thought{cut off}!", 0 },
    { "text<turn|>more", "text{text}", 0 },
    { "text<|turn>user\nmore", "text{text}", 0 },
    { "a<|image|>b<|\"|>c", "text{abc}", 0 },
    { "\xf0\x9f\x99\x82 \xe3\x80\x80\xc3\xa9\xe2\x80\xa8", "text{\xf0\x9f\x99\x82 \xe3\x80\x80\xc3\xa9}", 0 },
    { "x\xf0\x9f<turn|>", "text{x\xf0\x9f}", 0 },
    { "", "", 0 },
    { " \n ", "", 0 },
    /* calls as the family writes them */
    { "<|tool_call>call:get_time{city:<|\"|>Oslo<|\"|>,n:3}<tool_call|><|tool_response>",
      "call{get_time|{\"city\":\"Oslo\",\"n\":3}}", 0 },
    { "<|tool_call>call:f{}<tool_call|><|tool_call>call:g{a:true}<tool_call|>", "call{f|{}}call{g|{\"a\":true}}", 0 },
    { "Wait.<|tool_call>call:f{a:[1,-2.5e3,<|\"|>x<|\"|>,null,{b:[]}],c:{d:false}}<tool_call|>",
      "text{Wait.}call{f|{\"a\":[1,-2.5e3,\"x\",null,{\"b\":[]}],\"c\":{\"d\":false}}}", 0 },
    { "<|tool_call>call:f{a:<|\"|>{b:1},\"c\" <tag>\n'd'<|\"|>}<tool_call|>",
      "call{f|{\"a\":\"{b:1},\\\"c\\\" <tag>\\n'd'\"}}", 0 },
    { "<|tool_call>call:f{<|\"|>k:1<|\"|>:2,a:<|\"|><|\"|>}<tool_call|>", "call{f|{\"k:1\":2,\"a\":\"\"}}", 0 },
    { "<|channel>thought\nneed f\n<channel|><|tool_call>call:f{x:1}<tool_call|>", "thought{need f}call{f|{\"x\":1}}",
      0 },
    /* calls as they also come */
    { "<|tool_call>call:f{{a:1,b:<|\"|>x<|\"|>}}<tool_call|>", "call{f|{\"a\":1,\"b\":\"x\"}}", 0 },
    { "<|tool_call>call:f{ {\"a\": {\"b\": 1}} }<tool_call|>", "call{f|{\"a\":{\"b\":1}}}", 0 },
    { "<|tool_call>call:f({{a:1}})<tool_call|>", "call{f|{\"a\":1}}", 0 },
    { "<|tool_call>{\"name\": \"f\", \"arguments\": {\"a\": [1]}}<tool_call|>", "call{f|{\"a\":[1]}}", 0 },
    { "<|tool_call>call:{\"name\":\"f\",\"parameters\":{\"a\":1}}<tool_call|>", "call{f|{\"a\":1}}", 0 },
    { "<|tool_call>[{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}]<tool_call|>", "call{f|{\"a\":1}}", 0 },
    { "<|tool_call>{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1}}}<tool_call|>",
      "call{f|{\"a\":1}}", 0 },
    { "<|tool_call>{\"function\": \"f\", \"args\": {}}<tool_call|>", "call{f|{}}", 0 },
    { "<|tool_call>{<|\"|>name<|\"|>:<|\"|>f<|\"|>,arguments:{a:<|\"|>x<|\"|>}}<tool_call|>", "call{f|{\"a\":\"x\"}}",
      0 },
    { "<|tool_call>\n```json\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n```<tool_call|>", "call{f|{\"a\":1}}", 0 },
    { "<|tool_call>{\"name\":\"f\"}<tool_call|>", "call{f|{}}", 0 },
    /* several between the markers */
    { "<|tool_call>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", \"arguments\": {}}]<tool_call|>.",
      "call{f|{\"a\":1}}call{g|{}}text{.}", 0 },
    { "<|tool_call>[{name:f,args:{}},{function:{name:<|\"|>g<|\"|>,arguments:{b:[2]}}},{\"tool\":\"h\"}]<tool_call|>",
      "call{f|{}}call{g|{\"b\":[2]}}call{h|{}}", 0 },
    { "<|tool_call>{\"name\":\"f\",\"arguments\":{}}\n{\"name\":\"g\",\"arguments\":{\"a\":1}};<tool_call|>",
      "call{f|{}}call{g|{\"a\":1}}", 0 },
    { "<|tool_call>[{\"name\":\"f\"},2,{\"a\":3}]<turn|>", "call{f|{}}call{|{\"a\":3}}!", 0 },
    { "<|tool_call>[{\"name\":\"f\"},{\"name\":\"g\",\"arguments\":{\"a\"", "call{f|{}}!call{g|{\"a\":null}}!", 0 },
    { "<|tool_call>[]<tool_call|>", "call{|{}}!", 0 },
    { "<|tool_call>[1,2]<tool_call|>", "call{|{}}!", 0 },
    /* keys that are no words, where a value has ended */
    { "<|tool_call>call:f{page[size]:5,page[from][0]:<|\"|>x<|\"|>,a[b]:[1]}<tool_call|>",
      "call{f|{\"page[size]\":5,\"page[from][0]\":\"x\",\"a[b]\":[1]}}", 0 },
    { "<|tool_call>call:f{a[1],b[c]{d:2}}<tool_call|>", "call{f|{\"a\":[1],\"b\":[\"c\"],\"\":{\"d\":2}}}", 0 },
    { "<|tool_call>call:f{first name:1,last name:2,:true,a/b:null,c d:<|\"|>x<|\"|>,e f:[3],g h:{}}<tool_call|>",
      "call{f|{\"first name\":1,\"last name\":2,\"\":true,\"a/b\":null,\"c d\":\"x\",\"e f\":[3],\"g h\":{}}}", 0 },
    { "<|tool_call>{\"tool\":\"f\",\"input\":\"x\"}<tool_call|>", "call{f|{\"input\":\"x\"}}", 0 },
    { "<|tool_call>{\"name\":\"f\",\"arguments\":null}<tool_call|>", "call{f|{}}", 0 },
    { "<|tool_call>call:name{name:f,arguments:{a:1}}<tool_call|>",
      "call{name|{\"name\":\"f\",\"arguments\":{\"a\":1}}}", 0 },
    { "<|tool_call>{\"name\":\"f\",\"arguments\":{\"a\":", "call{f|{\"a\":null}}!", 0 },
    { "<|tool_call>call:f{city=Paris, n = 2}<tool_call|>", "call{f|{\"city\":\"Paris\",\"n\":2}}", 0 },
    { "<|tool_call>call:f{\"city\": \"Paris\", \"list\": [1, 2], \"o\": {\"x\": null}}<tool_call|>",
      "call{f|{\"city\":\"Paris\",\"list\":[1,2],\"o\":{\"x\":null}}}", 0 },
    { "<|tool_call>call:f{city: 'Par\\'is', ok: True, no: None}<tool_call|>",
      "call{f|{\"city\":\"Par'is\",\"ok\":true,\"no\":null}}", 0 },
    { "<|tool_call>call:f{a:1 b:<|\"|>x<|\"|> c:true}<tool_call|>", "call{f|{\"a\":1,\"b\":\"x\",\"c\":true}}", 0 },
    { "<|tool_call>call:f{city:Paris, France,n:1}<tool_call|>", "call{f|{\"city\":\"Paris, France\",\"n\":1}}", 0 },
    { "<|tool_call>call:f{url:https://a.b/c?d=e,n:1}<tool_call|>", "call{f|{\"url\":\"https://a.b/c?d=e\",\"n\":1}}",
      0 },
    { "<|tool_call>call:f{a:[x, y z, 3]}<tool_call|>", "call{f|{\"a\":[\"x\",\"y z\",3]}}", 0 },
    { "<|tool_call>call:f{a:{b:[1,2<tool_call|>", "call{f|{\"a\":{\"b\":[1,2]}}}", 0 },
    { "<|tool_call>call:f{a:<|\"|>no end<tool_call|>", "call{f|{\"a\":\"no end\"}}", 0 },
    { "<|tool_call>call:f{a:,b:01,c:+5,d:1.}<tool_call|>",
      "call{f|{\"a\":null,\"b\":\"01\",\"c\":\"+5\",\"d\":\"1.\"}}", 0 },
    { "<|tool_call>f(a=1, b='x')<tool_call|>", "call{f|{\"a\":1,\"b\":\"x\"}}", 0 },
    { "<|tool_call>call:f{a:\"\\u00e9\\ud83d\\ude42\\n\\q\"}<tool_call|>",
      "call{f|{\"a\":\"\xc3\xa9\xf0\x9f\x99\x82\\n\\\\q\"}}", 0 },
    { "<|tool_call>call:f<tool_call|>", "call{f|{}}", 0 },
    { "<|tool_call><tool_call|>", "call{|{}}!", 0 },
    { "<tool_call|>x", "text{x}", 0 },
    /* what ends in the middle is incomplete, wherever the cut is; the model may forget the marker behind a whole call
     */
    { "<|tool_call>", "call{|{}}!", 0 },
    { "<|tool_call>ca", "call{|{}}!", 0 },
    { "<|tool_call>ca{}<tool_call|>", "call{ca|{}}", 0 },
    { "<|tool_call>call:", "call{|{}}!", 0 },
    { "<|tool_call>call:f", "call{f|{}}!", 0 },
    { "<|tool_call>call:f{", "call{f|{}}!", 0 },
    { "<|tool_call>call:f{a:1", "call{f|{\"a\":1}}!", 0 },
    { "<|tool_call>call:f{a:<|\"|>rm -r /tm", "call{f|{\"a\":\"rm -r /tm\"}}!", 0 },
    { "<|tool_call>call:f{a:<|\"|>x\xf0\x9f", "call{f|{\"a\":\"x\xef\xbf\xbd\xef\xbf\xbd\"}}!", 0 },
    { "<|tool_call>call:f{a:1}", "call{f|{\"a\":1}}!", 0 },
    { "<|tool_call>call:f{a:1}<|tool_response>", "call{f|{\"a\":1}}", 0 },
    { "<|tool_call>call:f{a:1}<turn|>", "call{f|{\"a\":1}}", 0 },
    { "<|tool_call>f(a=1)<turn|>", "call{f|{\"a\":1}}", 0 },
    { "<|tool_call>f(a=1<turn|>", "call{f|{\"a\":1}}!", 0 },
    { "<|tool_call>call:f{a:1<|tool_response>", "call{f|{\"a\":1}}!", 0 },
    { "<|tool_call>call:f{a:{b:1}<turn|>", "call{f|{\"a\":{\"b\":1}}}!", 0 },
    { "<|tool_call>call:f{a:<|\"|>}<turn|>", "call{f|{\"a\":\"}\"}}!", 0 },
    { "<|tool_call>call:f{a:1}<|tool_call>call:g{b", "call{f|{\"a\":1}}call{g|{\"b\":null}}!", 0 },
    { "<|tool_call>call:f{a:<|tool_call>call:g{}<tool_call|>", "call{f|{\"a\":null}}!call{g|{}}", 0 },
    { "<|tool_call>call:f{}<|channel>thought\nx", "call{f|{}}thought{x}!", 0 },
    { "<|tool_call>call:{a:1}<tool_call|>", "call{|{\"a\":1}}!", 0 },
    { "<|channel>thought\na\n<|channel>tho", "thought{a\n}!", 0 },
    { "<|channel>thought\na<turn|>", "thought{a}", 0 },
    { "<|channel>thought\nx\xf0\x9f", "thought{x\xf0\x9f}!", 0 },
    { "<|channel>tho", "", 0 },
    { "a<|tool_call>call:f{}<tool_call|>b", "text{a}call{f|{}}text{b}", 0 },
};

typedef struct {
    g4_buf seen;
    int last, kind, ends, incomplete;
} g4_told;

/* Deltas put together must be the parts. */
static int g4_collect(void *user, int index, const g4_part *d)
{
    g4_told *s = user;
    if (index != s->last) {
        if (s->last >= 0) g4_buf_str(&s->seen, s->incomplete ? "}!" : "}");
        if (d->kind == G4_PART_TOOL_CALL)
            g4_buf_fmt(&s->seen, "call{%s|", d->name);
        else
            g4_buf_str(&s->seen, d->kind == G4_PART_TEXT ? "text{" : "thought{");
    }
    s->last = index;
    s->incomplete = d->incomplete;
    g4_buf_add(&s->seen, d->text, d->text_len);
    return s->ends > 0 && --s->ends == 0;
}

/* Strings that end an answer, in its text alone. */
static const struct {
    const char *reply, *stops[3], *parts;
    int which; /* -1: none */
} g4_stop_cases[] = {
    { "one two three", { "two" }, "text{one}", 0 },
    { "one two three", { "three", "two" }, "text{one}", 1 },
    { "one two", { "twofold", "", "x" }, "text{one two}", -1 },
    { "aab", { "ab" }, "text{a}", 0 },
    { "abcabd", { "abd" }, "text{abc}", 0 },
    { "two", { "two" }, "", 0 },
    { "\n\na\n\nb", { "\n\n" }, "text{a}", 0 },
    { "a \n", { "\n" }, "text{a}", 0 },
    { "a\xe3\x80\x80\xe3\x80\x82z", { "\xe3\x80\x82" }, "text{a}", 0 },
    { "<|channel>thought\ntwo<channel|>\n\none two", { "two", "\n\n" }, "thought{two}text{one}", 0 },
    { "a<|tool_call>call:two{a:1}<tool_call|>b two", { "two" }, "text{a}call{two|{\"a\":1}}text{b}", 0 },
    { "tw<|tool_call>call:f{}<tool_call|>o", { "two" }, "text{tw}call{f|{}}text{o}", -1 },
    { "a tw<turn|>", { "two" }, "text{a tw}", -1 },
    { "a two<|tool_call>call:f{}<tool_call|>", { "two" }, "text{a}", 0 },
    { "xy\xf0\x9f<turn|>", { "x" }, "", 0 },
};

static int g4_collect(void *user, int index, const g4_part *d);

static void g4_run_stop_case(size_t i, size_t piece, const g4_allocator *a)
{
    g4_error err;
    g4_response *r;
    g4_told stream = { .last = -1 };
    g4_buf parts = { 0 };
    const char *const *stops = g4_stop_cases[i].stops;
    const int which = g4_stop_cases[i].which;
    int n = 0;
    while (n < 3 && stops[n] != NULL) n++;
    if (g4_response_new(&r, a, NULL, 0, g4_collect, &stream, &err) != G4_OK) return;
    G4_EXPECT(g4_response_stop_at(r, stops, n, &err) == G4_OK, "%s", err.message);
    const char *reply = g4_stop_cases[i].reply;
    const int is_over = g4_feed_all(r, reply, strlen(reply), piece);
    const g4_status st = g4_response_finish(r, &err);
    if (a == NULL) {
        g4_show_parts(&parts, r);
        if (stream.last >= 0) g4_buf_str(&stream.seen, "}");
        const char *got = parts.data == NULL ? "" : parts.data,
                   *seen = stream.seen.data == NULL ? "" : stream.seen.data;
        G4_EXPECT(st == G4_OK && strcmp(got, g4_stop_cases[i].parts) == 0, "%s in pieces of %zu: %s", reply, piece,
                  got);
        G4_EXPECT(strcmp(seen, g4_stop_cases[i].parts) == 0, "%s streamed in pieces of %zu: %s", reply, piece, seen);
        G4_EXPECT(g4_response_stop_string(r) == (which < 0 ? NULL : stops[which]) && (is_over != 0) == (which >= 0),
                  "%s in pieces of %zu: ended %d", reply, piece, is_over);
    }
    g4_response_close(r);
    g4_buf_free(&parts);
    g4_buf_free(&stream.seen);
}

static void g4_test_stops(void)
{
    g4_error err;
    g4_response *r;
    const char *const none[] = { "a", NULL };
    for (size_t i = 0; i < sizeof g4_stop_cases / sizeof g4_stop_cases[0]; i++) {
        for (size_t piece = 1; piece < 8; piece++) g4_run_stop_case(i, piece, NULL);
        g4_run_stop_case(i, 1000, NULL);
        for (long k = 0; k < 60; k++) {
            g4_failing f = { 0, k, 0 };
            g4_allocator al = g4_failing_allocator(&f);
            g4_run_stop_case(i, 5, &al);
            G4_EXPECT(f.live == 0, "case %zu, allocation %ld: %ld blocks live", i, k, f.live);
            if (f.calls <= k) break;
        }
    }
    G4_EXPECT(g4_response_new(&r, NULL, NULL, 0, NULL, NULL, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(g4_response_stop_at(r, none, 2, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    G4_EXPECT(g4_response_stop_at(r, NULL, 1, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    G4_EXPECT(g4_response_stop_at(NULL, none, 1, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    G4_EXPECT(g4_response_stop_string(NULL) == NULL && g4_response_stop_string(r) == NULL, "nothing ended it");
    g4_response_feed(r, G4_CONTROL_NONE, "a", 1);
    G4_EXPECT(g4_response_stop_at(r, none, 1, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    g4_response_close(r);
}

typedef struct { /* a call as it comes */
    g4_buf text;
    int n, n_raw;
    size_t behind; /* bytes of what was written that were told last, at most */
    const size_t *written;
} g4_coming;

static int g4_follow_call(void *user, int index, const g4_part *d)
{
    g4_coming *c = user;
    const size_t told = c->text.len + d->text_len, behind = *c->written > told ? *c->written - told : 0;
    g4_buf_add(&c->text, d->text, d->text_len);
    c->n++;
    c->n_raw += d->raw != NULL;
    if (d->raw == NULL && c->n > 4 && behind > c->behind) c->behind = behind;
    return index != 0 || strcmp(d->name, "write") != 0;
}

/* A file that a call writes comes while it is written, and in time that grows with its length. */
static void g4_test_long_calls(void)
{
    enum { N = 300000 };
    static const char *const heads[] = { "call:write{text:", "call:write{list:[" };
    g4_error err;
    for (int kind = 0; kind < 2; kind++) {
        size_t written = 0;
        int n = 0;
        g4_response *r;
        g4_coming c = { .written = &written };
        G4_EXPECT(g4_response_new(&r, NULL, NULL, 0, g4_follow_call, &c, &err) == G4_OK, "%s", err.message);
        g4_response_stream_calls(r);
        g4_response_feed(r, G4_CONTROL_CALL, NULL, 0);
        g4_response_feed(r, G4_CONTROL_NONE, heads[kind], strlen(heads[kind]));
        if (kind == 0) g4_response_feed(r, G4_CONTROL_QUOTE, NULL, 0);
        for (; written < N; written += 3) g4_response_feed(r, G4_CONTROL_NONE, kind == 0 ? "\xe2\x82\xac" : "12,", 3);
        if (kind == 0) g4_response_feed(r, G4_CONTROL_QUOTE, NULL, 0);
        g4_response_feed(r, G4_CONTROL_NONE, kind == 0 ? "}" : "]}", kind == 0 ? 1 : 2);
        g4_response_feed(r, G4_CONTROL_CALL_END, NULL, 0);
        G4_EXPECT(g4_response_finish(r, &err) == G4_OK, "%s", err.message);
        const g4_part *p = g4_response_parts(r, &n);
        G4_EXPECT(n == 1 && p[0].text_len == c.text.len && memcmp(p[0].text, c.text.data, c.text.len) == 0 &&
                      c.n_raw == 1,
                  "%d parts; %zu bytes were told", n, c.text.len);
        G4_EXPECT(c.n > 200 && c.behind < N / 100, "%d pieces, up to %zu bytes behind", c.n, c.behind);
        g4_response_close(r);
        g4_buf_free(&c.text);
    }
}

static void g4_run_case(const g4_case *c, size_t piece, int streams_calls, const g4_allocator *a)
{
    g4_error err;
    g4_response *r;
    g4_told stream = { .last = -1 };
    g4_buf parts = { 0 };
    if (g4_response_new(&r, a, NULL, c->in_thought, g4_collect, &stream, &err) != G4_OK) return;
    if (streams_calls) g4_response_stream_calls(r);
    g4_feed_all(r, c->reply, strlen(c->reply), piece);
    g4_status st = g4_response_finish(r, &err);
    if (a == NULL) {
        g4_show_parts(&parts, r);
        if (stream.last >= 0) g4_buf_str(&stream.seen, stream.incomplete ? "}!" : "}");
        const char *got = parts.data == NULL ? "" : parts.data,
                   *seen = stream.seen.data == NULL ? "" : stream.seen.data;
        G4_EXPECT(st == G4_OK && strcmp(got, c->parts) == 0, "%s in pieces of %zu: %s, want %s", c->reply, piece, got,
                  c->parts);
        G4_EXPECT(strcmp(seen, c->parts) == 0, "%s streamed in pieces of %zu: %s", c->reply, piece, seen);
    }
    g4_response_close(r);
    g4_buf_free(&parts);
    g4_buf_free(&stream.seen);
}

int main(void)
{
    const size_t n_cases = sizeof g4_cases / sizeof g4_cases[0];
    for (size_t i = 0; i < n_cases; i++) {
        for (size_t piece = 1; piece < 8; piece++) {
            g4_run_case(&g4_cases[i], piece, 0, NULL);
            g4_run_case(&g4_cases[i], piece, 1, NULL);
        }
        g4_run_case(&g4_cases[i], 1000, i % 2, NULL);
    }

    /* the raw text of a call is kept as it was */
    g4_error err;
    g4_response *r;
    int n;
    G4_EXPECT(g4_response_new(&r, NULL, NULL, 0, NULL, NULL, &err) == G4_OK, "%s", err.message);
    const char *call = "<|tool_call>call:f{a = <|\"|>b<|\"|>  }<tool_call|>";
    g4_feed_all(r, call, strlen(call), 3);
    G4_EXPECT(g4_response_finish(r, &err) == G4_OK, "%s", err.message);
    const g4_part *p = g4_response_parts(r, &n);
    const char *raw = "call:f{a = <|\"|>b<|\"|>  }";
    G4_EXPECT(n == 1 && p[0].raw_len == strlen(raw) && memcmp(p[0].raw, raw, p[0].raw_len) == 0, "raw: %s",
              n > 0 ? p[0].raw : "none");
    g4_response_close(r);

    /* a name with a NUL in it is no name: as a string it would be another */
    const char hidden[] = "<|tool_call>call:rm\0dir{}<tool_call|>";
    G4_EXPECT(g4_response_new(&r, NULL, NULL, 0, NULL, NULL, &err) == G4_OK, "%s", err.message);
    g4_feed_all(r, hidden, sizeof hidden - 1, 100);
    G4_EXPECT(g4_response_finish(r, &err) == G4_OK, "%s", err.message);
    p = g4_response_parts(r, &n);
    G4_EXPECT(n == 1 && p[0].incomplete, "%d parts, a call of %s", n, n > 0 ? p[0].name : "nothing");
    g4_response_close(r);

    /* the callback can stop */
    g4_told stream = { .last = -1, .ends = 2 };
    G4_EXPECT(g4_response_new(&r, NULL, NULL, 0, g4_collect, &stream, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(g4_response_feed(r, G4_CONTROL_NONE, "a", 1) == 0 && g4_response_feed(r, G4_CONTROL_NONE, "b", 1) != 0,
              "stop after two");
    g4_response_close(r);
    g4_buf_free(&stream.seen);

    /* deep nesting is cut off, not followed */
    char deep[4096];
    memset(deep, '[', sizeof deep);
    memcpy(deep, "call:f{a:", 9);
    G4_EXPECT(g4_response_new(&r, NULL, NULL, 0, NULL, NULL, &err) == G4_OK, "%s", err.message);
    g4_response_feed(r, G4_CONTROL_CALL, NULL, 0);
    g4_response_feed(r, G4_CONTROL_NONE, deep, sizeof deep);
    G4_EXPECT(g4_response_finish(r, &err) == G4_OK, "%s", err.message);
    p = g4_response_parts(r, &n);
    g4_json *v = NULL;
    G4_EXPECT(n == 1 && g4_json_parse(&v, NULL, p[0].text, p[0].text_len, &err) == G4_OK, "deep call: %s", err.message);
    g4_json_free(NULL, v);
    g4_response_close(r);

    for (size_t i = 0; i < n_cases; i++) {
        for (long k = 0; k < 100; k++) {
            g4_failing f = { 0, k, 0 };
            g4_allocator al = g4_failing_allocator(&f);
            g4_run_case(&g4_cases[i], 5, (int)(k % 2), &al);
            if (f.live != 0) G4_EXPECT(f.live == 0, "case %zu, allocation %ld: %ld blocks live", i, k, f.live);
            if (f.calls <= k) break;
        }
    }
    G4_EXPECT(1, "failing allocations");
    g4_test_stops();
    g4_test_long_calls();
    int n_inputs = g4_replay("tests/fuzz/corpus_reply", LLVMFuzzerTestOneInput, 20);
    G4_EXPECT(n_inputs > 50, "%d inputs in the corpus", n_inputs);
    return g4_test_end();
}
