/* What conversations, answers and constrained output promise, on tiny random models: a call that fails for lack of
 * memory leaves everything as it was, a call that is cancelled ends soon, misuse is an error. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "failing.h"
#include "chat/chat.h"
#include "test.h"

#define G4_SEEING "tests/data/media/e2b.g4"
#define G4_TEMPLATE_USED "31b-2026-07"

/* ---- Fingerprints of all that can be seen ------------------------------------------------------------------ */

static void g4_mark_bytes(uint64_t *h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++) *h = (*h ^ p[i]) * 0x100000001b3u;
    *h = (*h ^ n) * 0x100000001b3u;
}

static void g4_mark_text(uint64_t *h, const char *s) { g4_mark_bytes(h, s != NULL ? s : "-", s != NULL ? strlen(s) : 1); }

static void g4_mark_prompt(uint64_t *h, const g4_prompt *p)
{
    g4_mark_bytes(h, p->tokens, (size_t)p->n * sizeof *p->tokens);
    for (int i = 0; i < p->n_media; i++) {
        const g4_soft *soft = p->media[i].soft;
        g4_mark_bytes(h, &p->media[i].pos, sizeof p->media[i].pos);
        g4_mark_bytes(h, g4_soft_rows(soft), (size_t)g4_soft_n(soft) * soft->hidden * sizeof(float));
    }
}

static void g4_mark_response(uint64_t *h, const g4_response *r)
{
    int n;
    const g4_part *parts = g4_response_parts(r, &n);
    for (int i = 0; i < n; i++) {
        g4_mark_bytes(h, &parts[i].kind, sizeof parts[i].kind);
        g4_mark_bytes(h, parts[i].text, parts[i].text_len);
        g4_mark_text(h, parts[i].name);
        g4_mark_bytes(h, parts[i].raw, parts[i].raw_len);
    }
}

/* ---- Memory that runs out ------------------------------------------------------------------------------------ */

static const char g4_tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":9},\"b\":{\"enum\":[\"x\",\"y\"]}},"
    "\"required\":[\"a\",\"b\"]}}}]";
static const char g4_schema_text[] =
    "{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":20},\"w\":{\"enum\":"
    "[\"a\",\"b\"]},\"p\":{\"type\":\"string\",\"pattern\":\"^(ab|[c-e]{2,4})$\"},\"s\":{\"type\":\"string\","
    "\"maxLength\":3}},\"required\":[\"n\",\"w\",\"p\",\"s\"]}";
static const char g4_rules_text[] = "root ::= list\nlist ::= item (\", \" item){0,2}\nitem ::= \"yes\" | \"no\" | [0-9]+";
static const char g4_document[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"Be \\u0062rief.\"},{\"role\":\"user\",\"content\":[{\"type\":"
    "\"text\",\"text\":\"What is it?\"},{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,"
    "aGVsbG8gd29ybGQ=\"}}]},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"function\":{"
    "\"name\":\"f\",\"arguments\":\"{\\\"a\\\": 1.5, \\\"b\\\": [null, \\\"x\\\"]}\"}}]},{\"role\":\"tool\","
    "\"tool_call_id\":\"1\",\"content\":\"done\"}]}";

enum { SIDE = 48 };

typedef struct { /* the objects of one try */
    g4_failing f;
    g4_allocator al;
    g4_engine *e;
    g4_session *s;
    g4_chat *c, *made; /* a conversation; what the call made */
    g4_grammar *g;
    g4_guide *guide;
    g4_response *r;
    g4_box *boxes;
    int n_boxes;
    uint64_t media; /* fingerprint of what g4_chat_media gave */
    uint8_t pixels[2][3 * SIDE * SIDE];
    g4_image image[2];
    g4_token tokens[512];
    int n_tokens, n_pushed;
    uint64_t told; /* fingerprint of the deltas of r */
} g4_world;

/* One picture, a thought, a call and its result in it; `variant` changes the question. */
static g4_status g4_world_chat(g4_world *w, g4_chat **out, int variant, g4_error *err)
{
    const g4_part ask[2] = { { .kind = G4_PART_IMAGE, .image = &w->image[variant] },
                             { .kind = G4_PART_TEXT, .text = variant ? "What is that?" : "What is this?" } };
    const g4_part answer[2] = { { .kind = G4_PART_THOUGHT, .text = "Hm." },
                                { .kind = G4_PART_TOOL_CALL, .name = "f", .text = "{\"a\": 1, \"b\": \"x\"}" } };
    const g4_part result = { .kind = G4_PART_TOOL_RESULT, .name = "f", .text = "{\"ok\": true}" };
    const g4_part more = { .kind = G4_PART_TEXT, .text = "And then?" };
    const g4_message m[] = { { .role = G4_ROLE_SYSTEM, .parts = &more, .n_parts = 1 },
                             { .role = G4_ROLE_USER, .parts = ask, .n_parts = 2 },
                             { .role = G4_ROLE_MODEL, .parts = answer, .n_parts = 2 },
                             { .role = G4_ROLE_TOOL, .parts = &result, .n_parts = 1 },
                             { .role = G4_ROLE_USER, .parts = &more, .n_parts = 1 } };
    const g4_chat_options opt = { .tools = g4_tools, .template_name = G4_TEMPLATE_USED };
    return g4_chat_open(out, w->e, m, 5, &opt, err);
}

static int g4_world_told(void *user, int index, const g4_part *delta)
{
    g4_world *w = user;
    g4_mark_bytes(&w->told, &index, sizeof index);
    g4_mark_bytes(&w->told, delta->text, delta->text_len);
    g4_mark_text(&w->told, delta->name);
    return 0;
}

static g4_status g4_respond_options_run(g4_world *w, g4_respond_options *opt, g4_response **r, g4_error *err)
{
    const g4_sampling sampling = { .temperature = 1.0f, .seed = 7 };
    const g4_generate_options gen = { .sampling = &sampling, .max_tokens = 60, .no_guard = 1 };
    opt->generate = &gen;
    return g4_session_respond(w->s, w->c, opt, r, NULL, err);
}

/* Text of the grammar behind what the session holds. */
static g4_status g4_generate_run(g4_world *w, g4_error *err)
{
    const g4_sampling sampling = { .temperature = 1.0f, .seed = 3 };
    const g4_generate_options gen = { .sampling = &sampling,
                                      .max_tokens = 40,
                                      .no_guard = 1,
                                      .constraint = g4_guide_constraint(w->guide) };
    return g4_session_generate(w->s, &gen, NULL, err);
}

/* The calls: each makes what it needs, in `before`, and then can fail. */
typedef g4_status (*g4_call_fn)(g4_world *w, g4_error *err);

static g4_status g4_nothing(g4_world *w, g4_error *err)
{
    (void)w, (void)err;
    return G4_OK;
}
static g4_status g4_have_chat(g4_world *w, g4_error *err) { return g4_world_chat(w, &w->c, 0, err); }
static g4_status g4_have_parsed(g4_world *w, g4_error *err)
{
    return g4_chat_parse(&w->c, w->e, g4_document, sizeof g4_document - 1,
                         &(g4_chat_options) { .openai = 1, .template_name = G4_TEMPLATE_USED }, err);
}
static g4_status g4_have_prompt(g4_world *w, g4_error *err)
{
    g4_prompt p;
    g4_status st = g4_have_parsed(w, err);
    if (st == G4_OK) st = g4_chat_set_image(w->c, 0, &w->image[1], err);
    if (st == G4_OK) st = g4_chat_prompt(w->c, &p, err);
    return st == G4_OK ? g4_chat_set_image(w->c, 0, &w->image[0], err) : st;
}
static g4_status g4_have_other_session(g4_world *w, g4_error *err) /* it holds another conversation */
{
    g4_chat *other = NULL;
    g4_status st = g4_session_open(&w->s, w->e, &(g4_session_options) { .n_ctx = 800, .chunk = 16 }, err);
    if (st == G4_OK) st = g4_world_chat(w, &other, 1, err);
    if (st == G4_OK) st = g4_session_sync_chat(w->s, other, NULL, err);
    g4_chat_close(other);
    return st == G4_OK ? g4_have_chat(w, err) : st;
}
static g4_status g4_have_session(g4_world *w, g4_error *err)
{
    g4_status st = g4_session_open(&w->s, w->e, &(g4_session_options) { .n_ctx = 800 }, err);
    if (st == G4_OK) st = g4_have_chat(w, err);
    return st == G4_OK ? g4_session_sync_chat(w->s, w->c, NULL, err) : st;
}
static g4_status g4_have_grammar(g4_world *w, g4_error *err)
{
    return g4_grammar_from_schema(&w->g, w->e, g4_schema_text, 0, err);
}
static g4_status g4_have_both(g4_world *w, g4_error *err)
{
    const g4_status st = g4_have_session(w, err);
    return st == G4_OK ? g4_have_grammar(w, err) : st;
}
static g4_status g4_have_text(g4_world *w, g4_error *err)
{
    g4_status st = g4_session_open(&w->s, w->e, NULL, err);
    if (st == G4_OK) st = g4_session_eval_text(w->s, "the cat", 0, err);
    if (st == G4_OK) st = g4_have_grammar(w, err);
    return st == G4_OK ? g4_guide_open_text(&w->guide, w->e, w->g, err) : st;
}
static g4_status g4_have_response(g4_world *w, g4_error *err)
{
    static const char text[] = "<|channel>thought\nHm, \xc3\xa9 well\n\n<channel|>  So:   \n\n  yes. "
                               "<|tool_call>call:f{a:1,b:<|\"|>x y<|\"|>,c:[true,{d:'q\\n'}]}<tool_call|>"
                               "<|tool_call>call:g{a:2<|channel>late\xe2\x82<channel|> end";
    g4_tokens ids = { 0 };
    g4_status st = g4_tokenizer_encode(g4_engine_tokenizer(w->e), NULL, text, sizeof text - 1, 1, &ids, NULL, err);
    for (; st == G4_OK && (size_t)w->n_tokens < ids.n && w->n_tokens < 512; w->n_tokens++)
        w->tokens[w->n_tokens] = ids.ids[w->n_tokens];
    g4_free(NULL, ids.ids);
    return st == G4_OK ? g4_response_open(&w->r, w->e, 0, g4_world_told, w, err) : st;
}

static g4_status g4_run_open(g4_world *w, g4_error *err) { return g4_world_chat(w, &w->made, 0, err); }
static g4_status g4_run_parse(g4_world *w, g4_error *err)
{
    const g4_status st = g4_chat_parse(&w->made, w->e, g4_document, sizeof g4_document - 1,
                                       &(g4_chat_options) { .openai = 1,
                                                            .tools = g4_tools,
                                                            .template_name = G4_TEMPLATE_USED },
                                       err);
    return st;
}
static g4_status g4_run_media(g4_world *w, g4_error *err)
{
    g4_chat_medium m;
    const g4_status st = g4_chat_media(w->c, 0, &m, err);
    if (st == G4_OK) g4_mark_bytes(&w->media, m.data, m.size);
    return st;
}
static g4_status g4_run_prompt(g4_world *w, g4_error *err)
{
    g4_prompt p;
    const g4_status st = g4_chat_prompt(w->c, &p, err);
    if (st != G4_OK && (p.n != 0 || p.tokens != NULL)) G4_EXPECT(0, "a failed prompt of %d tokens", p.n);
    if (st == G4_OK) g4_mark_prompt(&w->media, &p);
    return st;
}
static g4_status g4_run_sync(g4_world *w, g4_error *err) { return g4_session_sync_chat(w->s, w->c, NULL, err); }
static g4_status g4_run_respond(g4_world *w, g4_error *err)
{
    g4_respond_options opt = { .part = g4_world_told, .user = w };
    const uint64_t told = w->told;
    const g4_status st = g4_respond_options_run(w, &opt, &w->r, err);
    if (st != G4_OK) w->told = told; /* what was told before it failed is told again */
    return st;
}
static g4_status g4_run_respond_schema(g4_world *w, g4_error *err)
{
    g4_respond_options opt = { .guide = { .grammar = w->g, .think_budget = 5, .tool_choice = G4_TOOLS_NONE } };
    return g4_respond_options_run(w, &opt, &w->r, err);
}
static g4_status g4_run_respond_tools(g4_world *w, g4_error *err)
{
    g4_respond_options opt = { .guide = { .tool_choice = G4_TOOLS_NAMED, .tool_name = "f" } };
    return g4_respond_options_run(w, &opt, &w->r, err);
}
static g4_status g4_run_schema(g4_world *w, g4_error *err) { return g4_have_grammar(w, err); }
static g4_status g4_run_rules(g4_world *w, g4_error *err)
{
    return g4_grammar_from_rules(&w->g, w->e, g4_rules_text, 0, err);
}
static g4_status g4_run_tools(g4_world *w, g4_error *err)
{
    return g4_grammar_from_tools(&w->g, w->e, g4_tools, 0, NULL, err);
}
static g4_status g4_run_guide(g4_world *w, g4_error *err)
{
    return g4_guide_open(&w->guide, w->c, &(g4_guide_options) { .tool_choice = G4_TOOLS_REQUIRED }, err);
}
static g4_status g4_run_text_guide(g4_world *w, g4_error *err)
{
    return g4_guide_open_text(&w->guide, w->e, w->g, err);
}
static g4_status g4_run_response_open(g4_world *w, g4_error *err)
{
    return g4_response_open(&w->r, w->e, 0, g4_world_told, w, err);
}
static g4_status g4_run_response(g4_world *w, g4_error *err) /* a token that was not taken is pushed again */
{
    for (; w->n_pushed < w->n_tokens; w->n_pushed++) {
        const uint64_t told = w->told;
        if (g4_response_push(w->r, w->tokens[w->n_pushed]) == 0) continue;
        if (w->told != told) G4_EXPECT(0, "a token that was not taken was told");
        if (g4_response_push(w->r, w->tokens[w->n_pushed] + 1) == 0) G4_EXPECT(0, "another token was taken");
        return g4_response_finish(w->r, err);
    }
    return g4_response_finish(w->r, err);
}
static g4_status g4_run_boxes(g4_world *w, g4_error *err)
{
    static const char text[] = "Here: [{\"box_2d\": [10, 20, 300, 400], \"label\": \"a cat\"}, {\"point\": [1, 2]}, "
                               "[5, 6, 7, 8]]";
    return g4_boxes_read(&w->boxes, &w->n_boxes, text, sizeof text - 1, 640, 480, &w->al, err);
}

/* All that can be seen of a world; may not allocate from it. */
static uint64_t g4_world_fingerprint(g4_world *w)
{
    uint64_t h = 1;
    g4_chat *const chats[2] = { w->c, w->made };
    for (int i = 0; i < 2; i++) g4_mark_text(&h, g4_chat_text(chats[i], NULL));
    if (w->s != NULL) {
        g4_mark_bytes(&h, g4_session_tokens(w->s), (size_t)g4_session_n(w->s) * sizeof(g4_token));
        const float *logits = g4_session_logits(w->s);
        if (logits != NULL) g4_mark_bytes(&h, logits, g4_engine_config(w->e)->n_vocab * sizeof *logits);
    }
    g4_mark_response(&h, w->r);
    for (int i = 0; i < w->n_boxes; i++) {
        g4_mark_bytes(&h, &w->boxes[i].x0, 4 * sizeof(int));
        g4_mark_text(&h, w->boxes[i].label);
    }
    g4_mark_bytes(&h, &w->media, sizeof w->media);
    g4_mark_bytes(&h, &w->told, sizeof w->told);
    return h;
}

/* What the objects are good for afterwards: masks along a text of the grammar, text on the session. */
static uint64_t g4_world_later(g4_world *w)
{
    g4_error err = { 0 };
    uint64_t h = 2;
    if (w->g != NULL) {
        g4_guide *guide = NULL;
        const int n_vocab = (int)g4_engine_config(w->e)->n_vocab;
        const uint32_t n_words = (uint32_t)g4_mask_words(n_vocab) + 1;
        uint32_t *mask = calloc(n_words, sizeof *mask);
        G4_EXPECT(g4_guide_open_text(&guide, w->e, w->g, &err) == G4_OK, "%s", err.message);
        const g4_constraint *k = g4_guide_constraint(guide);
        for (int i = 0; k != NULL && mask != NULL && i < 12; i++) {
            g4_token token = -1;
            if (k->mask(k->user, mask, n_vocab)) break;
            g4_mark_bytes(&h, mask, ((size_t)n_vocab / 32) * sizeof *mask);
            for (g4_token id = n_vocab - 1; id >= 0 && token < 0; id--)
                if (mask[id / 32] >> (id % 32) & 1) token = id;
            k->accept(k->user, token);
        }
        free(mask);
        g4_guide_close(guide);
    }
    if (w->guide != NULL && w->s != NULL) {
        G4_EXPECT(g4_generate_run(w, &err) == G4_OK, "%s", err.message);
    } else if (w->s != NULL) {
        const g4_generate_options gen = { .max_tokens = 4, .ignore_stop_ids = 1 };
        G4_EXPECT(g4_session_generate(w->s, &gen, NULL, &err) == G4_OK, "%s", err.message);
    }
    const uint64_t seen = g4_world_fingerprint(w);
    g4_mark_bytes(&h, &seen, sizeof seen);
    return h;
}

static int g4_world_open(g4_world *w, g4_call_fn before)
{
    g4_error err = { 0 };
    memset(w, 0, sizeof *w);
    w->f.fail_at = -1;
    w->al = g4_failing_allocator(&w->f);
    for (int i = 0; i < 2; i++) {
        for (size_t k = 0; k < sizeof w->pixels[i]; k++) w->pixels[i][k] = (uint8_t)(k * (size_t)(i + 1) * 7);
        w->image[i] = (g4_image) { .pixels = w->pixels[i], .width = SIDE, .height = SIDE, .max_tokens = 70 };
    }
    g4_status st = g4_engine_open(&w->e,
                                  &(g4_engine_options) { .model_path = G4_SEEING, .n_threads = 2, .allocator = &w->al },
                                  &err);
    if (st == G4_OK) st = before(w, &err);
    G4_EXPECT(st == G4_OK, "%s", err.message);
    return st == G4_OK;
}

static void g4_world_close(g4_world *w)
{
    g4_response_close(w->r);
    g4_guide_close(w->guide);
    g4_grammar_close(w->g);
    g4_chat_close(w->c);
    g4_chat_close(w->made);
    g4_session_close(w->s);
    g4_boxes_free(w->boxes, w->n_boxes, &w->al);
    g4_engine_close(w->e);
    if (w->f.live != 0) G4_EXPECT(0, "%ld blocks left", w->f.live);
}

/* Nothing may be given out by a call that failed. */
static void g4_expect_nothing(const g4_world *w, const g4_world *old, const char *name, long k)
{
    if (w->made != old->made || w->g != old->g || w->guide != old->guide || w->boxes != old->boxes ||
        (w->r != old->r))
        G4_EXPECT(0, "%s, allocation %ld: it failed and gave something out", name, k);
}

/* Each allocation of the call fails once; then the same objects do it again, and go on. Returns the failures. */
static long g4_fail_each(const char *name, g4_call_fn before, g4_call_fn call)
{
    g4_world w;
    g4_error err = { 0 };
    long n_failures = 0;
    uint64_t done = 0, later = 0;
    if (!g4_world_open(&w, before)) return 0;
    G4_EXPECT(call(&w, &err) == G4_OK, "%s: %s", name, err.message);
    done = g4_world_fingerprint(&w);
    later = g4_world_later(&w);
    g4_world_close(&w);
    for (long k = 0, over = 0; !over && k < 20000; k++) {
        if (!g4_world_open(&w, before)) return n_failures;
        const uint64_t was = g4_world_fingerprint(&w);
        const g4_world old = w;
        w.f.calls = 0;
        w.f.fail_at = k;
        const g4_status st = call(&w, &err);
        over = w.f.calls <= k;
        w.f.fail_at = -1;
        if (st != G4_OK) {
            n_failures++;
            if (st != G4_ERR_MEMORY)
                G4_EXPECT(0, "%s, allocation %ld: %s %s", name, k, g4_status_name(st), err.message);
            g4_expect_nothing(&w, &old, name, k);
            /* an answer that is pushed keeps the tokens before the one that failed */
            if (call != g4_run_response && g4_world_fingerprint(&w) != was)
                G4_EXPECT(0, "%s, allocation %ld: something is not as it was", name, k);
            if (call(&w, &err) != G4_OK) G4_EXPECT(0, "%s, allocation %ld: again: %s", name, k, err.message);
        }
        if (g4_world_fingerprint(&w) != done) G4_EXPECT(0, "%s, allocation %ld: another result", name, k);
        if (g4_world_later(&w) != later) G4_EXPECT(0, "%s, allocation %ld: it goes on differently", name, k);
        g4_world_close(&w);
    }
    printf("  %-36s %5ld\n", name, n_failures);
    return n_failures;
}

static void g4_test_memory(void)
{
    static const struct {
        const char *name;
        g4_call_fn before, call;
        int least;
    } calls[] = {
        { "g4_chat_open", g4_nothing, g4_run_open, 4 },
        { "g4_chat_parse", g4_nothing, g4_run_parse, 4 },
        { "g4_chat_media", g4_have_parsed, g4_run_media, 1 },
        { "g4_chat_prompt", g4_have_chat, g4_run_prompt, 10 },
        { "g4_chat_prompt after set_image", g4_have_prompt, g4_run_prompt, 10 },
        { "g4_session_sync_chat", g4_have_other_session, g4_run_sync, 20 },
        { "g4_session_respond", g4_have_session, g4_run_respond, 20 },
        { "g4_session_respond, schema", g4_have_both, g4_run_respond_schema, 40 },
        { "g4_session_respond, tool", g4_have_session, g4_run_respond_tools, 40 },
        { "g4_session_generate, text guide", g4_have_text, g4_generate_run, 40 },
        { "g4_grammar_from_schema", g4_nothing, g4_run_schema, 20 },
        { "g4_grammar_from_rules", g4_nothing, g4_run_rules, 10 },
        { "g4_grammar_from_tools", g4_nothing, g4_run_tools, 10 },
        { "g4_guide_open", g4_have_chat, g4_run_guide, 10 },
        { "g4_guide_open_text", g4_have_grammar, g4_run_text_guide, 1 },
        { "g4_response_open", g4_nothing, g4_run_response_open, 1 },
        { "g4_response_push and _finish", g4_have_response, g4_run_response, 8 },
        { "g4_boxes_read", g4_nothing, g4_run_boxes, 4 },
    };
    const int n_calls = (int)(sizeof calls / sizeof calls[0]);
    long total = 0;
    printf("failures of each call:\n");
    for (int i = 0; i < n_calls; i++) {
        const long n = g4_fail_each(calls[i].name, calls[i].before, calls[i].call);
        G4_EXPECT(n >= calls[i].least, "%s: %ld failures", calls[i].name, n);
        total += n;
    }
    printf("%d calls x failures: %ld\n", n_calls, total);
}

int main(void)
{
    g4_test_memory();
    return g4_test_end();
}
