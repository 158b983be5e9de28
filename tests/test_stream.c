/* Answers as they come: the events of each dialect, byte for byte, against what their clients read; what a whole answer
 * says, the events say too; writing fails, allocations fail. */
#include <math.h>
#include <stdlib.h>

#include "answers.h"
#include "failing.h"
#include "test.h"

typedef struct { /* what was written */
    g4_buf all;
    int n, fail_at; /* writes so far; the one that fails, from 0; below 0: none */
    int is_cut;     /* one of them was not a whole event */
} g4_written;

static int g4_take(void *user, const void *data, size_t size)
{
    g4_written *w = user;
    const char *s = data;
    if (w->n++ == w->fail_at) return 1;
    w->is_cut |= size < 2 || s[size - 1] != '\n' || s[size - 2] != '\n';
    g4_buf_add(&w->all, data, size);
    return w->all.failed;
}

static void g4_expect_text(const char *got, const char *want, int line)
{
    size_t i = 0;
    while (got[i] != '\0' && got[i] == want[i]) i++;
    G4_EXPECT(got[i] == want[i], "line %d: byte %zu: got\n%.300s\nwant\n%.300s", line, i, got + i, want + i);
}

/* ---- Whole streams, byte for byte ------------------------------------------------------------------ */

#define G4_HEAD                                                                                                        \
    "\"id\":\"chatcmpl-0000000000000abc\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\"" \
    ",\"system_fingerprint\":\"f\""
#define G4_DELTA(delta) "data: {" G4_HEAD ",\"choices\":[{\"index\":0,\"delta\":{" delta "},\"logprobs\":null,"
#define G4_CHUNK(delta) G4_DELTA(delta) "\"finish_reason\":null}]}\n\n"
#define G4_COUNTED(delta) G4_DELTA(delta) "\"finish_reason\":null}],\"usage\":null}\n\n"
#define G4_TIMES                                                                                                       \
    ",\"timings\":{\"cache_n\":8,\"prompt_n\":12,\"prompt_ms\":250.000,\"prompt_per_token_ms\":20.833,"                \
    "\"prompt_per_second\":48.000,\"predicted_n\":9,\"predicted_ms\":500.000,\"predicted_per_token_ms\":55.556,"       \
    "\"predicted_per_second\":18.000}"
#define G4_LAST(reason) G4_DELTA("") "\"finish_reason\":\"" reason "\"}]" G4_TIMES "}\n\ndata: [DONE]\n\n"
#define G4_ROLE G4_CHUNK("\"role\":\"assistant\",\"content\":\"\"")
#define G4_CALLS(call) "\"tool_calls\":[{" call "}]"
#define G4_CALL_HEAD(i, n, name)                                                                                       \
    G4_CALLS("\"index\":" #i ",\"id\":\"call_0000000000000abc_" #n "\",\"type\":\"function\",\"function\":{\"name\":"  \
             "\"" name "\",\"arguments\":\"\"}")
#define G4_CALL_MORE(i, more) G4_CALLS("\"index\":" #i ",\"function\":{\"arguments\":\"" more "\"}")

static g4_answer g4_known(void)
{
    return (g4_answer) { .id = 0xabc,
                         .created = 1700000000,
                         .model = "m",
                         .fingerprint = "f",
                         .result = { .stop = G4_STOP_END, .n_tokens = 9, .seconds = 0.5 },
                         .prompt_tokens = 20,
                         .cached_tokens = 8,
                         .thought_tokens = 3,
                         .prompt_seconds = 0.25 };
}

static int g4_told_calls; /* calls are told while they are read */

/* The events of a reply, markers and all, fed in pieces of that size. */
static void g4_expect_stream(const char *reply, size_t piece, const g4_stream_options *how, const char *want, int line)
{
    g4_error err = { 0 };
    g4_written w = { .fail_at = -1 };
    g4_stream_options opt = *how;
    g4_answer c = *how->answer;
    g4_stream *s;
    g4_response *r;
    opt.write = g4_take;
    opt.user = &w;
    G4_EXPECT(g4_stream_open(&s, &opt, NULL, &err) == G4_OK, "line %d: %s", line, err.message);
    G4_EXPECT(g4_response_new(&r, NULL, NULL, 0, g4_stream_part, s, &err) == G4_OK, "line %d: %s", line, err.message);
    if (g4_told_calls) g4_response_stream_calls(r);
    g4_feed_all(r, reply, strlen(reply), piece);
    G4_EXPECT(g4_response_finish(r, &err) == G4_OK, "line %d: %s", line, err.message);
    c.parts = g4_response_parts(r, &c.n_parts);
    G4_EXPECT(g4_stream_end(s, &c, &err) == G4_OK, "line %d: %s", line, err.message);
    G4_EXPECT(!w.is_cut, "line %d: an event in pieces", line);
    g4_expect_text(w.all.data != NULL ? w.all.data : "", want, line);
    g4_stream_close(s);
    g4_response_close(r);
    g4_buf_free(&w.all);
}
#define G4_STREAMS(reply, piece, how, want) g4_expect_stream(reply, piece, how, want, __LINE__)

static void g4_test_chunks(void)
{
    g4_answer c = g4_known();
    g4_stream_options opt = { .answer = &c };
    /* a thought, text, a call; each of its own kind */
    G4_STREAMS("<|channel>thought\nHm\n<channel|>So it is.<|tool_call>call:f{a:1}<tool_call|>", 1000, &opt,
               G4_ROLE G4_CHUNK("\"reasoning_content\":\"Hm\"") G4_CHUNK("\"content\":\"So it is.\"")
                   G4_CHUNK(G4_CALL_HEAD(0, 0, "f")) G4_CHUNK(G4_CALL_MORE(0, "{\\\"a\\\":1}")) G4_LAST("tool_calls"));
    /* deltas are whole characters, and quoted */
    G4_STREAMS("a\"\xc3\xa9\xf0\x9f\x99\x82\n", 1, &opt,
               G4_ROLE G4_CHUNK("\"content\":\"a\"") G4_CHUNK("\"content\":\"\\\"\"")
                   G4_CHUNK("\"content\":\"\xc3\xa9\"") G4_CHUNK("\"content\":\"\xf0\x9f\x99\x82\"") G4_LAST("stop"));
    /* nothing at all; two calls, one of them without arguments; a call without a name is none */
    G4_STREAMS("", 1, &opt, G4_ROLE G4_LAST("stop"));
    G4_STREAMS("<|tool_call>call:f{}<tool_call|><|tool_call>call:g{}<tool_call|>", 1000, &opt,
               G4_ROLE G4_CHUNK(G4_CALL_HEAD(0, 0, "f")) G4_CHUNK(G4_CALL_MORE(0, "{}"))
                   G4_CHUNK(G4_CALL_HEAD(1, 1, "g")) G4_CHUNK(G4_CALL_MORE(1, "{}")) G4_LAST("tool_calls"));
    /* the counts, where they are asked for: in a chunk without choices, and null before */
    opt.include_usage = 1;
    G4_STREAMS("Yes", 1000, &opt,
               G4_COUNTED("\"role\":\"assistant\",\"content\":\"\"") G4_COUNTED("\"content\":\"Yes\"") G4_DELTA(
                   "") "\"finish_reason\":\"stop\"}],\"usage\":null}\n\ndata: {" G4_HEAD
                       ",\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":9,\"total_tokens\":29,"
                       "\"prompt_tokens_details\":{\"cached_tokens\":8},\"completion_tokens_details\":{\"reasoning_"
                       "tokens\":3}}" G4_TIMES "}\n\ndata: [DONE]\n\n");
    opt.include_usage = 0;
    /* how it ends */
    static const struct {
        g4_stop stop;
        const char *want;
    } ends[] = {
        { G4_STOP_MAX_TOKENS, G4_ROLE G4_LAST("length") },
        { G4_STOP_CONTEXT, G4_ROLE G4_LAST("length\",\"stop_reason\":\"context") },
        { G4_STOP_CANCELED, G4_ROLE G4_LAST("length\",\"stop_reason\":\"canceled") },
        { G4_STOP_STRING, G4_ROLE G4_LAST("stop\",\"stop_reason\":\"stop_string") },
        { G4_STOP_REPEAT, G4_ROLE G4_LAST("stop\",\"stop_reason\":\"repetition") },
        { G4_STOP_CONSTRAINT, G4_ROLE G4_LAST("stop\",\"stop_reason\":\"constraint") },
    };
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        c.result.stop = ends[i].stop;
        G4_STREAMS("", 1, &opt, ends[i].want);
    }
    /* a call that is cut before it was told is left out */
    c.result.stop = G4_STOP_MAX_TOKENS;
    G4_STREAMS("a<|tool_call>{\"name\":\"f\",\"argum", 1000, &opt,
               G4_ROLE G4_CHUNK("\"content\":\"a\"") G4_LAST("length"));
    /* and counts all the same: names are those of the whole answer */
    c.result.stop = G4_STOP_END;
    G4_STREAMS("<|tool_call>[1]<tool_call|><|tool_call>call:g{}<tool_call|>", 1000, &opt,
               G4_ROLE G4_CHUNK(G4_CALL_HEAD(0, 1, "g")) G4_CHUNK(G4_CALL_MORE(0, "{}")) G4_LAST("tool_calls"));
    /* calls as they are written; the rest of one that is cut is not told: it would make it look whole */
    g4_told_calls = 1;
    G4_STREAMS("<|tool_call>call:f{a:1,text:<|\"|>one \"two\"<|\"|>}<tool_call|>", 8, &opt,
               G4_ROLE G4_CHUNK(G4_CALL_HEAD(0, 0, "f")) G4_CHUNK(G4_CALL_MORE(0, "{\\\"a\\\":"))
                   G4_CHUNK(G4_CALL_MORE(0, "1,\\\"text\\\":\\\"")) G4_CHUNK(G4_CALL_MORE(0, "one \\\\\\\"two"))
                       G4_CHUNK(G4_CALL_MORE(0, "\\\\\\\"")) G4_CHUNK(G4_CALL_MORE(0, "\\\""))
                           G4_CHUNK(G4_CALL_MORE(0, "}")) G4_LAST("tool_calls"));
    c.result.stop = G4_STOP_MAX_TOKENS;
    G4_STREAMS("<|tool_call>call:f{a:<|\"|>rm -r /tm", 1000, &opt,
               G4_ROLE G4_CHUNK(G4_CALL_HEAD(0, 0, "f")) G4_CHUNK(G4_CALL_MORE(0, "{\\\"a\\\""))
                   G4_CHUNK(G4_CALL_MORE(0, ":\\\"")) G4_CHUNK(G4_CALL_MORE(0, "rm -r /tm")) G4_LAST("length"));
    g4_told_calls = 0;
    c.result.stop = G4_STOP_END;
    /* a text that is continued */
    c.is_completion = 1;
    const char *text = "data: {\"id\":\"cmpl-0000000000000abc\",\"object\":\"text_completion\",\"created\":1700000000,"
                       "\"model\":\"m\",\"system_fingerprint\":\"f\",\"choices\":[{\"index\":0,\"text\":\"Yes.\","
                       "\"logprobs\":null,\"finish_reason\":null}]}\n\n"
                       "data: {\"id\":\"cmpl-0000000000000abc\",\"object\":\"text_completion\",\"created\":1700000000,"
                       "\"model\":\"m\",\"system_fingerprint\":\"f\",\"choices\":[{\"index\":0,\"text\":\"\","
                       "\"logprobs\":null,\"finish_reason\":\"stop\"}]" G4_TIMES "}\n\ndata: [DONE]\n\n";
    G4_STREAMS("Yes.", 1000, &opt, text);
    c.is_completion = 0;
    c.dialect = G4_DIALECT_COMPLETIONS;
    G4_STREAMS("Yes.", 1000, &opt, text);
}

/* ---- A host's own pieces ----------------------------------------------------------------------------- */

/* What the deltas of a call say until it is cut stands; arguments that nobody wrote are an empty object. */
static void g4_test_pieces(void)
{
    g4_error err = { 0 };
    g4_written w = { .fail_at = -1 };
    g4_answer c = g4_known();
    const g4_stream_options opt = { .answer = &c, .write = g4_take, .user = &w };
    const g4_part pieces[] = { { .kind = G4_PART_TOOL_CALL, .text = "", .name = "f", .id = "mine" },
                               { .kind = G4_PART_TOOL_CALL, .text = "", .name = "g" },
                               { .kind = G4_PART_TOOL_CALL, .text = "{\"a\":" },
                               { .kind = G4_PART_TOOL_CALL, .text = "[1", .incomplete = 1 } };
    const g4_part whole = { .kind = G4_PART_TOOL_CALL, .text = "{}", .name = "f", .id = "mine" };
    g4_stream *s;
    G4_EXPECT(g4_stream_open(&s, &opt, NULL, &err) == G4_OK, "%s", err.message);
    for (int i = 0; i < 4; i++) G4_EXPECT(g4_stream_part(s, i == 0 ? 0 : 1, &pieces[i]) == 0, "piece %d", i);
    c.parts = &whole;
    c.n_parts = 1;
    c.model = "another";
    G4_EXPECT(g4_stream_end(s, &c, &err) == G4_OK, "%s", err.message);
    g4_expect_text(w.all.data,
                   G4_ROLE G4_CHUNK(G4_CALLS("\"index\":0,\"id\":\"mine\",\"type\":\"function\",\"function\":{\"name\":"
                                             "\"f\",\"arguments\":\"\"}")) G4_CHUNK(G4_CALL_MORE(0, "{}"))
                       G4_CHUNK(G4_CALL_HEAD(1, 1, "g")) G4_CHUNK(G4_CALL_MORE(1, "{\\\"a\\\":")) G4_LAST("length"),
                   __LINE__);
    /* there is one end */
    G4_EXPECT(g4_stream_part(s, 2, &whole) != 0, "a part behind the end");
    G4_EXPECT(g4_stream_end(s, &c, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    G4_EXPECT(g4_stream_refuse(s, &(g4_refusal) { 0 }, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    g4_stream_close(s);
    g4_buf_free(&w.all);
}

/* ---- Log-probabilities --------------------------------------------------------------------------------- */

/* The tokens of all chunks, in their order, are those of the whole answer. */
static void g4_expect_tokens(const g4_answer *c, const g4_output *outputs, const char *const *texts, int n)
{
    g4_error err = { 0 };
    g4_written w = { .fail_at = -1 }, whole = { .fail_at = -1 };
    const g4_stream_options opt = { .answer = c, .write = g4_take, .user = &w };
    g4_stream *s;
    g4_buf joined = { 0 };
    G4_EXPECT(g4_stream_open(&s, &opt, NULL, &err) == G4_OK, "%s", err.message);
    for (int i = 0; i < n; i++) {
        const g4_part text = { .kind = G4_PART_TEXT, .text = texts[i] };
        G4_EXPECT(g4_stream_token(s, &outputs[i]) == 0 && g4_stream_part(s, 0, &text) == 0, "token %d", i);
    }
    G4_EXPECT(g4_stream_end(s, c, &err) == G4_OK, "%s", err.message);
    for (const char *p = w.all.data; p != NULL && (p = strstr(p, "data: {")) != NULL; p++) {
        const char *content = strstr(p, "\"logprobs\":{\"content\":["), *end = strstr(p, "\n");
        if (content == NULL || content > end) continue;
        content += strlen("\"logprobs\":{\"content\":[");
        end = strstr(content, "],\"refusal\":null}");
        if (joined.len > 0) g4_buf_str(&joined, ",");
        g4_buf_add(&joined, content, (size_t)(end - content));
    }
    G4_EXPECT(g4_answer_write(c, g4_take, &whole, NULL, &err) == G4_OK, "%s", err.message);
    const char *all = strstr(whole.all.data, "\"logprobs\":{\"content\":[");
    G4_EXPECT(all != NULL && joined.len > 0, "no tokens in %s", whole.all.data);
    if (all != NULL && joined.len > 0)
        G4_EXPECT(strncmp(all + strlen("\"logprobs\":{\"content\":["), joined.data, joined.len) == 0,
                  "chunks have\n%s\nthe answer\n%s", joined.data, all);
    g4_stream_close(s);
    g4_buf_free(&joined);
    g4_buf_free(&w.all);
    g4_buf_free(&whole.all);
}

static void g4_test_tokens(void)
{
    enum { N = 40, N_TOP = 3 };
    g4_engine *e = NULL;
    g4_error err = { 0 };
    g4_candidate top[N][N_TOP];
    g4_output outputs[N];
    g4_token_logprob tokens[N];
    const char *texts[N];
    const g4_engine_options options = { .model_path = "tests/data/text_e2b.g4", .n_threads = 1 };
    G4_EXPECT(g4_engine_open(&e, &options, &err) == G4_OK, "%s", err.message);
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < N_TOP; k++) top[i][k] = (g4_candidate) { 238 + 'A' + (i + k) % 26, -0.25f * (float)k };
        outputs[i] = (g4_output) { .token = top[i][0].token, .logprob = -(float)i / 8, .top = top[i], .n_top = N_TOP };
        tokens[i] = (g4_token_logprob) { outputs[i].token, outputs[i].logprob, top[i], N_TOP, { 0 } };
        texts[i] = i % 20 == 10 ? "x" : ""; /* text that is held back: its tokens come with what follows */
    }
    g4_answer c = g4_known();
    c.engine = e;
    c.want_logprobs = 1;
    c.logprobs = tokens;
    c.n_logprobs = N;
    g4_expect_tokens(&c, outputs, texts, N);
    /* in a text that is continued, lists; offsets go on from chunk to chunk */
    g4_written w = { .fail_at = -1 };
    c.is_completion = 1;
    const g4_stream_options opt = { .answer = &c, .write = g4_take, .user = &w };
    g4_stream *s;
    G4_EXPECT(g4_stream_open(&s, &opt, NULL, &err) == G4_OK, "%s", err.message);
    char bytes[256];
    size_t offset = 0;
    for (int i = 0; i < 2; i++) {
        const g4_output o = { .token = 238 + 'A', .logprob = -0.5f, .top = top[0], .n_top = 1 };
        G4_EXPECT(g4_stream_token(s, &o) == 0, "token %d", i);
        G4_EXPECT(g4_stream_part(s, 0, &(g4_part) { .kind = G4_PART_TEXT, .text = "A" }) == 0, "part %d", i);
        char want[64];
        snprintf(want, sizeof want, "\"text_offset\":[%zu]", offset);
        offset += g4_token_bytes(e, 238 + 'A', 0, bytes);
        G4_EXPECT(strstr(w.all.data, want) != NULL && strstr(w.all.data, "\"token_logprobs\":[-0.500000000]") != NULL,
                  "no %s in %s", want, w.all.data);
    }
    G4_EXPECT(g4_stream_token(s, &(g4_output) { .token = -1 }) == 0, "text that was held back");
    /* the first token of a prompt that is repeated has no probability */
    const g4_output none = { .token = 238 + 'A', .logprob = NAN };
    w.all.len = 0;
    G4_EXPECT(g4_stream_token(s, &none) == 0, "a token");
    G4_EXPECT(g4_stream_part(s, 0, &(g4_part) { .kind = G4_PART_TEXT, .text = "A" }) == 0, "its text");
    G4_EXPECT(strstr(w.all.data, "\"token_logprobs\":[null],\"top_logprobs\":[null],") != NULL, "%s", w.all.data);
    g4_stream_close(s);
    g4_buf_free(&w.all);
    g4_engine_close(e);
}

/* ---- Errors ---------------------------------------------------------------------------------------------- */

static void g4_test_refusals(void)
{
    static const struct {
        g4_refusal why;
        const char *want;
    } cases[] = {
        { { .status = G4_ERR_ARGUMENT, .message = "top_p: \"x\"", .param = "top_p" },
          "{\"error\":{\"message\":\"top_p: "
          "\\\"x\\\"\",\"type\":\"invalid_request_error\",\"param\":\"top_p\",\"code\":"
          "null}}" },
        { { .status = G4_ERR_CONTEXT, .message = "full", .param = "" },
          "{\"error\":{\"message\":\"full\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":"
          "\"context_length_exceeded\"}}" },
        { { .status = G4_ERR_MEMORY },
          "{\"error\":{\"message\":\"\",\"type\":\"server_error\",\"param\":null,\"code\":null}}" },
        { { .http = 401, .message = "no" },
          "{\"error\":{\"message\":\"no\",\"type\":\"authentication_error\",\"param\":null,\"code\":\"invalid_api_"
          "key\"}"
          "}" },
        { { .http = 503, .message = "busy" },
          "{\"error\":{\"message\":\"busy\",\"type\":\"server_error\",\"param\":null,\"code\":\"overloaded\"}}" },
    };
    g4_error err = { 0 };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        g4_written w = { .fail_at = -1 };
        g4_answer c = g4_known();
        g4_stream *s;
        char want[512];
        G4_EXPECT(g4_refusal_write(G4_DIALECT_OPENAI, &cases[i].why, g4_take, &w, NULL, &err) == G4_OK, "%s",
                  err.message);
        snprintf(want, sizeof want, "%s\n", cases[i].want);
        g4_expect_text(w.all.data, want, __LINE__);
        g4_buf_free(&w.all);
        const g4_stream_options opt = { .answer = &c, .write = g4_take, .user = &w };
        w = (g4_written) { .fail_at = -1 };
        G4_EXPECT(g4_stream_open(&s, &opt, NULL, &err) == G4_OK, "%s", err.message);
        G4_EXPECT(g4_stream_refuse(s, &cases[i].why, &err) == G4_OK, "%s", err.message);
        snprintf(want, sizeof want, G4_ROLE "data: %s\n\n", cases[i].want);
        g4_expect_text(w.all.data, want, __LINE__);
        g4_stream_close(s);
        g4_buf_free(&w.all);
    }
}

static void g4_test_misuse(void)
{
    g4_error err = { 0 };
    g4_written w = { .fail_at = -1 };
    g4_answer c = g4_known();
    g4_stream *s = NULL;
    g4_stream_options opt = { .answer = &c, .write = g4_take, .user = &w };
    G4_EXPECT(g4_stream_open(NULL, &opt, NULL, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    G4_EXPECT(g4_stream_open(&s, NULL, NULL, &err) == G4_ERR_ARGUMENT && s == NULL, "%s", err.message);
    opt.write = NULL;
    G4_EXPECT(g4_stream_open(&s, &opt, NULL, &err) == G4_ERR_ARGUMENT && s == NULL, "%s", err.message);
    opt.write = g4_take;
    opt.answer = NULL;
    G4_EXPECT(g4_stream_open(&s, &opt, NULL, &err) == G4_ERR_ARGUMENT && s == NULL, "%s", err.message);
    opt.answer = &c;
    c.want_logprobs = 1;
    G4_EXPECT(g4_stream_open(&s, &opt, NULL, &err) == G4_ERR_ARGUMENT && s == NULL, "%s", err.message);
    c.want_logprobs = 0;
    c.dialect = (g4_dialect)77;
    G4_EXPECT(g4_stream_open(&s, &opt, NULL, &err) == G4_ERR_ARGUMENT && s == NULL, "%s", err.message);
    G4_EXPECT(g4_answer_write(&c, g4_take, &w, NULL, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    G4_EXPECT(g4_refusal_write((g4_dialect)77, &(g4_refusal) { 0 }, g4_take, &w, NULL, &err) == G4_ERR_ARGUMENT, "%s",
              err.message);
    G4_EXPECT(g4_refusal_write(G4_DIALECT_OPENAI, NULL, g4_take, &w, NULL, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    G4_EXPECT(g4_stream_part(NULL, 0, &(g4_part) { 0 }) != 0 && g4_stream_token(NULL, NULL) != 0, "NULL is taken");
    G4_EXPECT(g4_stream_end(NULL, &c, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    G4_EXPECT(g4_stream_refuse(NULL, &(g4_refusal) { 0 }, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    g4_stream_close(NULL);
    G4_EXPECT(w.n == 0, "%d writes", w.n);
}

/* A stream from its beginning to its end; the number of its pieces that were taken. */
static g4_status g4_run_stream(g4_written *w, const g4_allocator *a, g4_error *err)
{
    const g4_part pieces[] = { { .kind = G4_PART_THOUGHT, .text = "Hm" },
                               { .kind = G4_PART_TEXT, .text = "So" },
                               { .kind = G4_PART_TOOL_CALL, .name = "f", .text = "{\"a\":1}" } };
    g4_answer c = g4_known();
    const g4_stream_options opt = { .answer = &c, .write = g4_take, .user = w };
    g4_stream *s;
    c.parts = pieces;
    c.n_parts = 3;
    g4_status st = g4_stream_open(&s, &opt, a, err);
    if (st != G4_OK) return st;
    for (int i = 0; i < 3; i++) g4_stream_part(s, i, &pieces[i]);
    st = g4_stream_end(s, &c, err);
    g4_stream_close(s);
    return st;
}

static void g4_test_failures(void)
{
    g4_error err = { 0 };
    g4_written whole = { .fail_at = -1 };
    G4_EXPECT(g4_run_stream(&whole, NULL, &err) == G4_OK, "%s", err.message);
    for (int i = 0; i <= whole.n; i++) { /* nothing is written behind what could not be */
        g4_written w = { .fail_at = i };
        const g4_status st = g4_run_stream(&w, NULL, &err);
        G4_EXPECT(i == whole.n ? st == G4_OK : st == G4_ERR_IO && w.n == i + 1, "write %d of %d: status %d, %d writes",
                  i, whole.n, st, w.n);
        G4_EXPECT(w.all.len == 0 || memcmp(w.all.data, whole.all.data, w.all.len) == 0, "write %d", i);
        g4_buf_free(&w.all);
    }
    int is_done = 0;
    for (long k = 0; k < 200 && !is_done; k++) {
        g4_failing f = { 0, k, 0 };
        const g4_allocator al = g4_failing_allocator(&f);
        g4_written w = { .fail_at = -1 };
        const g4_status st = g4_run_stream(&w, &al, &err);
        is_done = f.calls <= k;
        G4_EXPECT(is_done ? st == G4_OK : st == G4_ERR_MEMORY, "allocation %ld: status %d", k, st);
        G4_EXPECT(f.live == 0, "allocation %ld: %ld blocks live", k, f.live);
        G4_EXPECT(w.all.len == 0 || memcmp(w.all.data, whole.all.data, w.all.len) == 0, "allocation %ld", k);
        g4_buf_free(&w.all);
    }
    G4_EXPECT(is_done, "more than 200 allocations");
    g4_buf_free(&whole.all);
}

int main(void)
{
    g4_test_chunks();
    g4_test_pieces();
    g4_test_tokens();
    g4_test_refusals();
    g4_test_misuse();
    g4_test_failures();
    return g4_test_end();
}
