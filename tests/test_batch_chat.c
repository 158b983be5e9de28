/* test_batch_chat.c - answers to chats as a batch makes them are those of g4_session_respond: thoughts, calls of tools,
 * schemas and media of the bundled model, with follow-up turns that reuse what the sessions hold. */
#include "answers.h"
#include "failing.h"
#include "test.h"
#include "tiny.h"

enum { N_CHATS = 20 };

typedef struct {
    g4_chat *c;
    g4_tiny_media *media;
    g4_session *alone, *together;
    g4_respond_options opt;
    g4_generate_options generate;
    g4_buf want, got; /* the parts of the answer, and how it ended */
    g4_buf told;      /* the texts of its deltas */
    int n_told_calls; /* deltas of calls that came before their end */
    int is_done;
} g4_talk;

static int g4_talk_part(void *user, int index, const g4_part *delta)
{
    g4_talk *t = user;
    g4_buf_add(&t->told, delta->text, delta->text_len);
    t->n_told_calls += delta->kind == G4_PART_TOOL_CALL && delta->raw == NULL;
    return index < 0;
}

/* What was told is what the parts say. */
static void g4_compare_told(g4_talk *t, const g4_response *r)
{
    int n;
    g4_buf all = { 0 };
    const g4_part *p = g4_response_parts(r, &n);
    for (int i = 0; i < n; i++) g4_buf_add(&all, p[i].text, p[i].text_len);
    G4_EXPECT(all.len == t->told.len && (all.len == 0 || memcmp(all.data, t->told.data, all.len) == 0),
              "told %zu bytes of %zu", t->told.len, all.len);
    t->told.len = 0;
    g4_buf_free(&all);
}

static void g4_describe(g4_buf *out, g4_talk *t, const g4_session *s, g4_status st, const g4_response *r,
                        const g4_result *result)
{
    if (r != NULL) g4_show_parts(out, r);
    if (t->opt.part != NULL) g4_compare_told(t, r);
    g4_buf_fmt(out, " %d %s %d of %d %s", (int)st, g4_stop_name(result->stop), result->n_tokens, g4_session_n(s),
               result->stop_string != NULL ? result->stop_string : "-");
}

static void g4_talk_done(void *user, g4_session *s, g4_status st, g4_response *r, const g4_result *result,
                         const g4_error *err)
{
    g4_talk *t = user;
    G4_EXPECT((st == G4_OK) == (err == NULL), "%d", st);
    t->is_done++;
    g4_describe(&t->got, t, s, st, r, result);
    g4_response_close(r);
}

/* The next question of the file in a talk of its own. Returns 0 at its end. */
static int g4_talk_open(g4_talk *t, g4_engine *e, FILE *f, int i, g4_grammar *digits)
{
    char *line = NULL, *answer = NULL;
    size_t cap = 0, answer_cap = 0, len = 0, n;
    g4_error err = { 0 };
    if (!g4_tiny_line(f, &line, &cap, &len) || !g4_tiny_line(f, &answer, &answer_cap, &n)) len = 0;
    t->media = calloc(1, sizeof *t->media);
    if (len > 0 && t->media != NULL) {
        const int ok = !g4_chat_parse(&t->c, e, line, len, NULL, &err) && !g4_tiny_load(t->c, t->media, &err) &&
                       !g4_session_open(&t->alone, e, NULL, &err) && !g4_session_open(&t->together, e, NULL, &err);
        G4_EXPECT(ok, "%s", err.message);
    }
    static const char *const stops[] = { "no such text", "e" };
    t->generate = (g4_generate_options) { .max_tokens = i % 7 == 6 ? 4 : 120, .stop = stops, .n_stop = 1 + i % 2 };
    t->opt = (g4_respond_options) { .generate = &t->generate,
                                    .guide.grammar = i % 5 == 4 ? digits : NULL,
                                    .part = g4_talk_part,
                                    .user = t,
                                    .call_deltas = 1 };
    free(line);
    free(answer);
    return len > 0;
}

static void g4_talk_alone(g4_talk *t)
{
    g4_error err = { 0 };
    g4_response *r = NULL;
    g4_result result = { .n_tokens = 0 };
    g4_status st = g4_session_sync_chat(t->alone, t->c, NULL, &err);
    if (st == G4_OK) st = g4_session_respond(t->alone, t->c, &t->opt, &r, &result, &err);
    G4_EXPECT(st == G4_OK, "%s", err.message);
    g4_describe(&t->want, t, t->alone, st, r, &result);
    g4_response_close(r);
}

static void g4_talk_close(g4_talk *t)
{
    g4_chat_close(t->c);
    g4_session_close(t->alone);
    g4_session_close(t->together);
    for (int i = 0; t->media != NULL && i < G4_TINY_MEDIA; i++) {
        g4_image_free(&t->media->image[i], NULL);
        g4_audio_free(&t->media->audio[i], NULL);
        g4_video_free(&t->media->video[i], NULL);
    }
    free(t->media);
    g4_buf_free(&t->want);
    g4_buf_free(&t->got);
    g4_buf_free(&t->told);
}

/* All talks in one batch, some of which join later. */
static void g4_talk_together(g4_talk *t, int n, g4_engine *e)
{
    g4_batch *b = NULL;
    g4_error err = { 0 };
    G4_EXPECT(g4_batch_open(&b, e, NULL, &err) == G4_OK, "%s", err.message);
    for (int added = 0; added < n || g4_batch_n(b) > 0;) {
        for (int k = 0; k < 3 && added < n; k++, added++) {
            const g4_batch_respond_request r = { .respond = &t[added].opt, .done = g4_talk_done, .user = &t[added] };
            G4_EXPECT(g4_batch_respond(b, t[added].together, t[added].c, &r, &err) == G4_OK, "%s", err.message);
        }
        G4_EXPECT(g4_batch_step(b, &err) == G4_OK, "%s", err.message);
    }
    g4_batch_close(b);
}

static void g4_test_answers(g4_engine *e, g4_grammar *digits)
{
    static g4_talk talks[N_CHATS];
    FILE *f = fopen("tests/data/tiny.jsonl", "rb");
    int n = 0;
    while (f != NULL && n < N_CHATS && g4_talk_open(&talks[n], e, f, n, digits)) n++;
    G4_EXPECT(n == N_CHATS, "%d chats", n);
    for (int turn = 0; turn < 2; turn++) { /* the second asks again: the sessions hold the prompts */
        for (int i = 0; i < n; i++) {
            talks[i].want.len = talks[i].got.len = 0;
            talks[i].is_done = 0;
            g4_talk_alone(&talks[i]);
        }
        g4_talk_together(talks, n, e);
        for (int i = 0; i < n; i++)
            G4_EXPECT(talks[i].is_done == 1 && talks[i].got.len == talks[i].want.len &&
                          memcmp(talks[i].got.data, talks[i].want.data, talks[i].want.len) == 0,
                      "chat %d, turn %d: %s, alone %s", i, turn, talks[i].got.data, talks[i].want.data);
    }
    int n_told_calls = 0, n_stopped = 0;
    for (int i = 0; i < n; i++) {
        n_told_calls += talks[i].n_told_calls;
        n_stopped += strstr(talks[i].got.data, "stop_string") != NULL;
    }
    G4_EXPECT(n_told_calls > 10 && n_stopped > 2, "%d deltas of calls, %d answers stopped", n_told_calls, n_stopped);
    for (int i = 0; i < n; i++) g4_talk_close(&talks[i]);
    if (f != NULL) fclose(f);
}

/* ---- Answers go on while media are encoded ---------------------------------------------------------------- */

enum { N_LOOKERS = 3 }; /* whose picture is encoded while others answer */

typedef struct {
    int n_tokens;          /* told since it was 0 */
    g4_session *to_cancel; /* with the next one; NULL: none */
} g4_watched;

static int g4_watch_tokens(void *user, const g4_output *out)
{
    g4_watched *w = user;
    (void)out;
    w->n_tokens++;
    if (w->to_cancel) g4_session_cancel(w->to_cancel);
    w->to_cancel = NULL;
    return 0;
}

/* A talk about picture i: what engine e says alone, and the same chat and a session of engine `fresh`. */
static int g4_looker_open(g4_talk *t, g4_engine *e, g4_engine *fresh, int i, g4_watched *watched)
{
    static const char look[] = "[{\"role\": \"user\", \"content\": [{\"type\": \"image\", \"path\": "
                               "\"tests/data/tiny/scene%d_0.png\"}, {\"type\": \"text\", \"text\": \"%s\"}]}]";
    static const char *const says[N_LOOKERS] = { "What do you see?", "Describe this image.", "And here?" };
    char ask[256];
    g4_error err = { 0 };
    const size_t n = (size_t)snprintf(ask, sizeof ask, look, i, says[i]);
    t->media = calloc(1, sizeof *t->media);
    t->generate = (g4_generate_options) { .max_tokens = 120, .output = g4_watch_tokens, .user = watched };
    t->opt = (g4_respond_options) { .generate = &t->generate };
    int ok = t->media && !g4_chat_parse(&t->c, e, ask, n, NULL, &err) && !g4_tiny_load(t->c, t->media, &err) &&
             !g4_session_open(&t->alone, e, NULL, &err);
    if (ok) g4_talk_alone(t);
    g4_chat_close(t->c);
    t->c = NULL;
    ok = ok && !g4_chat_parse(&t->c, fresh, ask, n, NULL, &err) &&
         !g4_chat_set_image(t->c, 0, &t->media->image[0], &err) && !g4_session_open(&t->together, fresh, NULL, &err);
    G4_EXPECT(ok, "%s", err.message);
    return ok;
}

/* It said what it says alone, of a picture with the bits that it has in an engine that did nothing else meanwhile. */
static void g4_looker_close(g4_talk *t, g4_engine *e, g4_engine *fresh)
{
    g4_soft *alone = NULL, *together = NULL;
    const int ok = t->c && !g4_image_encode(&alone, e, &t->media->image[0], NULL) &&
                   !g4_image_encode(&together, fresh, &t->media->image[0], NULL);
    G4_EXPECT(t->is_done == 1 && t->got.len == t->want.len && memcmp(t->got.data, t->want.data, t->got.len) == 0,
              "%s, alone %s", t->got.data, t->want.data);
    G4_EXPECT(ok && alone->n == together->n &&
                  memcmp(alone->rows, together->rows, (size_t)alone->n * alone->hidden * sizeof *alone->rows) == 0,
              "the picture has other bits");
    g4_soft_close(e, alone);
    g4_soft_close(fresh, together);
    g4_talk_close(t);
}

/* A talk about a picture joins others that answer: they get tokens before it is in. One of these cancels the last,
 * which asks again. */
static void g4_test_encoding(g4_engine *e)
{
    static g4_talk talks[N_LOOKERS];
    g4_engine *fresh = NULL;
    g4_batch *b = NULL;
    g4_error err = { 0 };
    g4_watched watched = { 0, NULL };
    const g4_engine_options opt = { .model_path = "models/tiny.g4", .n_threads = 2 };
    int ok = !g4_engine_open(&fresh, &opt, &err) &&
             !g4_batch_open(&b, fresh, &(g4_batch_options) { .encode_seconds = -1 }, &err);
    for (int i = 0; ok && i < N_LOOKERS; i++) {
        g4_talk *t = &talks[i];
        const g4_batch_respond_request r = { .respond = &t->opt, .done = g4_talk_done, .user = t };
        ok = g4_looker_open(t, e, fresh, i, &watched);
        if (ok && i == N_LOOKERS - 1) {
            watched.to_cancel = t->together;
            G4_EXPECT(g4_batch_respond(b, t->together, t->c, &r, &err) == G4_ERR_CANCELED && t->is_done == 0, "%s",
                      err.message);
        }
        watched.n_tokens = 0;
        ok = ok && !g4_batch_respond(b, t->together, t->c, &r, &err);
        G4_EXPECT((watched.n_tokens > 0) == (i > 0), "%d tokens while picture %d was encoded", watched.n_tokens, i);
        ok = ok && !g4_batch_step(b, &err);
    }
    G4_EXPECT(ok && !g4_batch_run(b, &err), "%s", err.message);
    for (int i = 0; ok && i < N_LOOKERS; i++) g4_looker_close(&talks[i], e, fresh);
    g4_batch_close(b);
    g4_engine_close(fresh);
}

/* ---- Without memory ------------------------------------------------------------------------------------------- */

enum { N_POOR = 2 };

/* Both talks in a batch; what cannot be added is over, too. */
static void g4_poor_answers(g4_talk *t, g4_engine *e)
{
    g4_batch *b = NULL;
    g4_error err = { 0 };
    g4_result none = { .stop_token = -1 };
    if (g4_batch_open(&b, e, NULL, &err)) return;
    for (int i = 0; i < N_POOR; i++) {
        const g4_batch_respond_request r = { .respond = &t[i].opt, .done = g4_talk_done, .user = &t[i] };
        const g4_status status = g4_batch_respond(b, t[i].together, t[i].c, &r, &err);
        if (status) g4_talk_done(&t[i], t[i].together, status, NULL, &none, &err);
    }
    G4_EXPECT(!g4_batch_run(b, &err), "%s", err.message);
    g4_batch_close(b);
}

/* An allocation fails: the talk that needed it has an error and its session what it held, the other its answer. */
static void g4_test_memory(void)
{
    static const char *const asks[N_POOR] = {
        "[{\"role\": \"user\", \"content\": \"hi\"}]",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"tools\": [{\"type\": \"function\", "
        "\"function\": "
        "{\"name\": \"look\", \"parameters\": {\"type\": \"object\", \"properties\": {\"at\": {\"enum\": [\"k\"]}}, "
        "\"required\": [\"at\"], \"additionalProperties\": false}}}]}"
    };
    static g4_talk t[N_POOR];
    g4_failing failing = { .fail_at = -1 };
    const g4_allocator allocator = g4_failing_allocator(&failing);
    const g4_engine_options opt = { .model_path = "models/tiny.g4", .n_threads = 1, .allocator = &allocator };
    const g4_guide_options guides[N_POOR] = { { 0 }, { .tool_choice = G4_TOOLS_REQUIRED } };
    g4_engine *e = NULL;
    g4_error err = { 0 };
    int ok = !g4_engine_open(&e, &opt, &err), n_failed = 0, prompt[N_POOR];
    for (int i = 0; ok && i < N_POOR; i++) {
        ok = !g4_chat_parse(&t[i].c, e, asks[i], strlen(asks[i]), NULL, &err) &&
             !g4_session_open(&t[i].alone, e, NULL, &err);
        t[i].generate = (g4_generate_options) { .max_tokens = 60 };
        t[i].opt = (g4_respond_options) { .generate = &t[i].generate, .guide = guides[i] };
        if (!ok) break;
        g4_talk_alone(&t[i]);
        g4_prompt p;
        ok = !g4_chat_prompt(t[i].c, &p, &err);
        prompt[i] = p.n;
    }
    G4_EXPECT(ok && strstr(t[1].want.data, "look"), "%s", err.message);
    for (long at = 0, has_failed = 1; ok && has_failed; at += 1 + at / 30) {
        for (int i = 0; i < N_POOR; i++) {
            G4_EXPECT(!g4_session_open(&t[i].together, e, NULL, &err), "%s", err.message);
            t[i].got.len = 0;
            t[i].is_done = 0;
        }
        failing.fail_at = failing.calls + at;
        g4_poor_answers(t, e);
        has_failed = failing.calls > failing.fail_at;
        failing.fail_at = -1;
        for (int i = 0; i < N_POOR; i++) {
            const int n = g4_session_n(t[i].together),
                      is_same = t[i].got.len == t[i].want.len && !memcmp(t[i].got.data, t[i].want.data, t[i].got.len);
            const int has_none = !t[i].is_done || strtol(t[i].got.data, NULL, 10) == G4_ERR_MEMORY;
            n_failed += t[i].is_done && has_none;
            G4_EXPECT(t[i].is_done <= 1 && (has_none ? n == 0 || n == prompt[i] : is_same),
                      "allocation %ld, talk %d: %s, n %d; alone %s", at, i, t[i].is_done ? t[i].got.data : "-", n,
                      t[i].want.data);
            g4_session_close(t[i].together);
            t[i].together = NULL;
        }
    }
    G4_EXPECT(n_failed > 50, "%d talks failed", n_failed);
    for (int i = 0; i < N_POOR; i++) g4_talk_close(&t[i]);
    g4_engine_close(e);
    G4_EXPECT(failing.live == 0, "%ld blocks are left", failing.live);
}

static void g4_test_misuse(g4_engine *e)
{
    static const char ask[] = "[{\"role\": \"user\", \"content\": \"hi\"}]";
    g4_chat *c = NULL, *plain = NULL;
    g4_session *s = NULL, *small = NULL;
    g4_batch *b = NULL;
    g4_error err = { 0 };
    const g4_chat_options bare = { .template_name = "e2b-2026-07" };
    g4_talk t = { .c = NULL };
    const int ok = !g4_chat_parse(&c, e, ask, strlen(ask), NULL, &err) &&
                   !g4_chat_parse(&plain, NULL, ask, strlen(ask), &bare, &err) && !g4_session_open(&s, e, NULL, &err) &&
                   !g4_session_open(&small, e, &(g4_session_options) { .n_ctx = 4 }, &err) &&
                   !g4_batch_open(&b, e, NULL, &err);
    const g4_batch_respond_request r = { .done = g4_talk_done, .user = &t }, none = { .user = &t };
    G4_EXPECT(ok, "%s", err.message);
    G4_EXPECT(g4_batch_respond(NULL, s, c, &r, &err) == G4_ERR_ARGUMENT, "no batch");
    G4_EXPECT(g4_batch_respond(b, NULL, c, &r, &err) == G4_ERR_ARGUMENT, "no session");
    G4_EXPECT(g4_batch_respond(b, s, NULL, &r, &err) == G4_ERR_ARGUMENT, "no chat");
    G4_EXPECT(g4_batch_respond(b, s, c, NULL, &err) == G4_ERR_ARGUMENT, "no request");
    G4_EXPECT(g4_batch_respond(b, s, c, &none, &err) == G4_ERR_ARGUMENT, "no done");
    G4_EXPECT(g4_batch_respond(b, s, plain, &r, &err) == G4_ERR_ARGUMENT, "a chat without an engine");
    G4_EXPECT(g4_batch_respond(b, small, c, &r, &err) == G4_ERR_CONTEXT, "%s", err.message);
    G4_EXPECT(g4_batch_respond(b, s, c, &r, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(g4_batch_respond(b, s, c, &r, &err) == G4_ERR_ARGUMENT, "twice");
    G4_EXPECT(g4_batch_step(b, &err) == G4_OK && t.is_done == 0, "%s", err.message);
    g4_session_cancel(s);
    G4_EXPECT(g4_batch_step(b, &err) == G4_OK && t.is_done == 1 && g4_batch_n(b) == 0 &&
                  strstr(t.got.data, "canceled") != NULL,
              "%s, %s", err.message, t.got.data);
    g4_buf_free(&t.got);
    g4_batch_close(b);
    g4_session_close(s);
    g4_session_close(small);
    g4_chat_close(c);
    g4_chat_close(plain);
}

int main(void)
{
    static const char schema[] = "{\"type\": \"object\", \"properties\": {\"n\": {\"type\": \"integer\"}}, "
                                 "\"required\": [\"n\"], \"additionalProperties\": false}";
    g4_engine *e = NULL;
    g4_grammar *digits = NULL;
    g4_error err = { 0 };
    const int ok = !g4_engine_open(&e, &(g4_engine_options) { .model_path = "models/tiny.g4", .n_threads = 2 }, &err) &&
                   !g4_grammar_from_schema(&digits, e, schema, strlen(schema), NULL, &err);
    G4_EXPECT(ok, "%s", err.message);
    if (ok) g4_test_answers(e, digits);
    if (ok) g4_test_encoding(e);
    if (ok) g4_test_misuse(e);
    g4_test_memory();
    g4_grammar_close(digits);
    g4_engine_close(e);
    return g4_test_end();
}
