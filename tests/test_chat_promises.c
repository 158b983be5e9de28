/* What conversations, answers and constrained output promise, on tiny random models: a call that fails for lack of
 * memory leaves everything as it was, a call that is cancelled ends soon, misuse is an error. */
#include "constrained.h"

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

static void g4_mark_text(uint64_t *h, const char *s)
{
    g4_mark_bytes(h, s != NULL ? s : "-", s != NULL ? strlen(s) : 1);
}

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
static const char g4_rules_text[] =
    "root ::= list\nlist ::= item (\", \" item){0,2}\nitem ::= \"yes\" | \"no\" | [0-9]+";
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
    g4_request *request;
    g4_buf written; /* an answer */
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
    const g4_generate_options gen = {
        .sampling = &sampling, .max_tokens = 40, .no_guard = 1, .constraint = g4_guide_constraint(w->guide)
    };
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
    return g4_grammar_from_schema(&w->g, w->e, g4_schema_text, 0, NULL, err);
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
                               "<|tool_call>call:g{a:2<|channel>late\xe2\x82<channel|> end"
                               "<|tool_call>{\"name\":\"h\",\"args\":\"{}\"}<tool_call|>";
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
    const g4_status st =
        g4_chat_parse(&w->made, w->e, g4_document, sizeof g4_document - 1,
                      &(g4_chat_options) { .openai = 1, .tools = g4_tools, .template_name = G4_TEMPLATE_USED }, err);
    return st;
}
static g4_status g4_run_media(g4_world *w, g4_error *err)
{
    g4_chat_medium m;
    const g4_status st = g4_chat_media(w->c, 0, &m, err);
    if (st == G4_OK) g4_mark_bytes(&w->media, m.data, m.size);
    return st;
}
static const char g4_request_text[] = "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\","
                                      "\"text\":\"What is it?\"},{\"type\":\"image_url\","
                                      "\"image_url\":{\"url\":\"data:,P6%0A2%201%0A255%0Aabcdef\"}},{\"type\":\"image_"
                                      "url\",\"image_url\":{\"url\":\"data:;base64,"
                                      "UDYKMiAxCjI1NQphYmNkZWY=\"}}]},{\"role\":\"assistant\",\"tool_calls\":[{\"id\":"
                                      "\"1\",\"name\":\"f\",\"arguments\":\"{\\\"a\\\": "
                                      "1\"},{\"id\":\"2\",\"function\":{\"arguments\":\"{}\"}}]},{\"role\":\"tool\","
                                      "\"tool_call_id\":\"1\",\"content\":\"done\"}],"
                                      "\"tools\":[{\"name\":\"f\",\"inputSchema\":{}}],\"stop\":[\"x\"],\"logit_bias\":"
                                      "{\"1\":2},\"response_format\":{\"type\":"
                                      "\"json_object\"}}";
static g4_status g4_run_request(g4_world *w, g4_error *err)
{
    return g4_request_read(&w->request, g4_request_text, sizeof g4_request_text - 1, &w->al, NULL, err);
}
static g4_status g4_run_request_chat(g4_world *w, g4_error *err)
{
    const g4_chat_options opt = { .template_name = G4_TEMPLATE_USED };
    return g4_request_chat(&w->made, w->e, w->request, &opt, NULL, err);
}
static g4_status g4_have_request_chat(g4_world *w, g4_error *err)
{
    const g4_status st = g4_run_request(w, err);
    if (st != G4_OK) return st;
    return g4_request_chat(&w->c, w->e, w->request, &(g4_chat_options) { .template_name = G4_TEMPLATE_USED }, NULL,
                           err);
}
static g4_status g4_run_load_media(g4_world *w, g4_error *err) { return g4_chat_load_media(w->c, NULL, err); }
static int g4_world_write(void *user, const void *data, size_t size)
{
    g4_buf_add(user, data, size);
    return 0;
}
static g4_status g4_run_completion(g4_world *w, g4_error *err)
{
    const g4_part parts[] = { { .kind = G4_PART_TEXT, .text = "So" },
                              { .kind = G4_PART_THOUGHT, .text = "Hm" },
                              { .kind = G4_PART_TOOL_CALL, .name = "f" } };
    const g4_token_logprob token = { .token = 300, .logprob = -1 };
    const g4_answer c = { .created = 1,
                          .parts = parts,
                          .n_parts = 3,
                          .engine = w->e,
                          .want_logprobs = 1,
                          .logprobs = &token,
                          .n_logprobs = 1 };
    return g4_answer_write(&c, g4_world_write, &w->written, &w->al, err);
}
static g4_status g4_run_prompt(g4_world *w, g4_error *err)
{
    g4_prompt p;
    const g4_status st = g4_chat_prompt(w->c, &p, err);
    if (st != G4_OK && (p.n != 0 || p.tokens != NULL)) G4_EXPECT(0, "a failed prompt of %d tokens", p.n);
    if (st == G4_OK) g4_mark_prompt(&w->media, &p);
    return st;
}
static g4_status g4_run_beginning(g4_world *w, g4_error *err)
{
    g4_prompt p;
    return g4_chat_beginning(w->c, &p, err);
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
    return g4_grammar_from_rules(&w->g, w->e, g4_rules_text, 0, NULL, err);
}
static g4_status g4_run_tools(g4_world *w, g4_error *err)
{
    return g4_grammar_from_tools(&w->g, w->e, g4_tools, 0, NULL, NULL, err);
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
    const g4_request_info *info = g4_request_get(w->request);
    if (info != NULL) {
        g4_mark_text(&h, info->tools);
        g4_mark_text(&h, info->schema);
        g4_mark_text(&h, info->stop[0]);
        g4_mark_bytes(&h, info->bias, (size_t)info->n_bias * sizeof *info->bias);
    }
    g4_mark_text(&h, w->written.data);
    for (int i = 0; w->request != NULL && w->f.fail_at < 0 && i < g4_chat_n_media(w->c); i++) {
        g4_chat_medium m;
        if (g4_chat_media(w->c, i, &m, NULL) == G4_OK && m.image != NULL) g4_mark_bytes(&h, m.image->pixels, 6);
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
    g4_status st = g4_engine_open(
        &w->e, &(g4_engine_options) { .model_path = G4_SEEING, .n_threads = 1, .allocator = &w->al }, &err);
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
    g4_request_close(w->request);
    g4_buf_free(&w->written);
    g4_boxes_free(w->boxes, w->n_boxes, &w->al);
    g4_engine_close(w->e);
    if (w->f.live != 0) G4_EXPECT(0, "%ld blocks left", w->f.live);
}

/* Nothing may be given out by a call that failed. */
static void g4_expect_nothing(const g4_world *w, const g4_world *old, const char *name, long k)
{
    if (w->made != old->made || w->g != old->g || w->guide != old->guide || w->boxes != old->boxes || w->r != old->r ||
        w->request != old->request || w->written.len != old->written.len)
        G4_EXPECT(0, "%s, allocation %ld: it failed and gave something out", name, k);
}

#ifdef __SANITIZE_ADDRESS__ /* which is ten times slower: every seventh allocation */
enum { G4_STEP = 7 };
#else
enum { G4_STEP = 1 };
#endif

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
    for (long k = 0, over = 0; !over && k < 20000; k += G4_STEP) {
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
        int min_failures;
    } calls[] = {
        { "g4_chat_open", g4_nothing, g4_run_open, 4 },
        { "g4_chat_parse", g4_nothing, g4_run_parse, 4 },
        { "g4_chat_media", g4_have_parsed, g4_run_media, 1 },
        { "g4_request_read", g4_nothing, g4_run_request, 8 },
        { "g4_request_chat", g4_run_request, g4_run_request_chat, 4 },
        { "g4_chat_load_media", g4_have_request_chat, g4_run_load_media, 6 },
        { "g4_answer_write", g4_nothing, g4_run_completion, 2 },
        { "g4_chat_prompt", g4_have_chat, g4_run_prompt, 10 },
        { "g4_chat_beginning", g4_have_chat, g4_run_beginning, 3 },
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
        G4_EXPECT(G4_STEP * n >= calls[i].min_failures, "%s: %ld failures", calls[i].name, n);
        total += n;
    }
    printf("%d calls x failures: %ld\n", n_calls, total);
}

/* ---- Calls that are cancelled ---------------------------------------------------------------------------------- */

typedef struct {
    g4_cancel cancel; /* of the engine's limits */
    int after_ms;
    double set_at; /* when it was set */
} g4_canceler;

static void *g4_canceler_main(void *user)
{
    g4_canceler *k = user;
    const double start = g4_seconds();
    while (g4_seconds() - start < k->after_ms / 1000.0) /* sleeping may take longer than the call */
        ;
    k->set_at = g4_seconds();
    g4_cancel_set(&k->cancel);
    return NULL;
}

typedef struct { /* long texts that take long to compile, parse or tokenise */
    g4_engine *e;
    g4_canceler canceler;
    g4_buf text;
    g4_grammar *g;
    g4_chat *c;
    g4_message *messages;
    int n_messages;
    g4_part part;
    double longest; /* to return after the flag was set */
} g4_slow;

typedef g4_status (*g4_slow_fn)(g4_slow *w, g4_error *err);

static g4_status g4_slow_schema(g4_slow *w, g4_error *err)
{
    return g4_grammar_from_schema(&w->g, w->e, w->text.data, w->text.len, NULL, err);
}
static g4_status g4_slow_rules(g4_slow *w, g4_error *err)
{
    return g4_grammar_from_rules(&w->g, w->e, w->text.data, w->text.len, NULL, err);
}
static g4_status g4_slow_tools(g4_slow *w, g4_error *err)
{
    return g4_grammar_from_tools(&w->g, w->e, w->text.data, w->text.len, NULL, NULL, err);
}
static g4_status g4_slow_parse(g4_slow *w, g4_error *err)
{
    g4_chat *c = NULL;
    const g4_chat_options opt = { .template_name = G4_TEMPLATE_USED };
    const g4_status st = g4_chat_parse(&c, w->e, w->text.data, w->text.len, &opt, err);
    g4_chat_close(c);
    return st;
}
static g4_status g4_slow_open(g4_slow *w, g4_error *err)
{
    g4_chat *c = NULL;
    const g4_chat_options opt = { .template_name = G4_TEMPLATE_USED };
    const g4_status st = g4_chat_open(&c, w->e, w->messages, w->n_messages, &opt, err);
    g4_chat_close(c);
    return st;
}
static g4_status g4_slow_prompt(g4_slow *w, g4_error *err)
{
    g4_prompt p;
    return g4_chat_prompt(w->c, &p, err);
}
static g4_status g4_slow_tokenize(g4_slow *w, g4_error *err)
{
    size_t n;
    return g4_tokenize(w->e, w->text.data, w->text.len, 0, NULL, 0, &n, err);
}
static g4_status g4_slow_mask(g4_slow *w, g4_error *err) /* as generation asks for one */
{
    g4_guide *guide = NULL;
    g4_halt halt;
    const int n_vocab = (int)g4_engine_tokenizer(w->e)->n_vocab;
    uint32_t *mask = calloc(g4_mask_words(n_vocab) + 1, sizeof *mask);
    g4_status st = g4_guide_open_text(&guide, w->e, w->g, err);
    const g4_constraint *k = g4_guide_constraint(guide);
    const g4_constraint_hooks *own = k != NULL ? k->own : NULL;
    g4_engine_halt(w->e, &halt);
    if (st == G4_OK)
        G4_EXPECT(own->begin(k->user, (uint32_t)n_vocab + 1, &halt, NULL) == G4_ERR_ARGUMENT,
                  "a guide serves a model of another vocabulary");
    if (st == G4_OK) st = own->begin(k->user, (uint32_t)n_vocab, &halt, err);
    for (int i = 0; st == G4_OK && mask != NULL && i < 30; i++) {
        g4_token token = -1;
        if (k->mask(k->user, mask, n_vocab)) break;
        for (g4_token id = 0; id < n_vocab && token < 0; id++)
            if (mask[(id + 97) % n_vocab / 32] >> ((id + 97) % n_vocab % 32) & 1) token = (id + 97) % n_vocab;
        k->accept(k->user, token);
    }
    if (st == G4_OK) st = own->end(k->user, st, 0, err);
    free(mask);
    g4_guide_close(guide);
    return st;
}

/* Cancelled at several moments, and once by a deadline; then the same objects do it to the end. */
static void g4_cancel_each(g4_slow *w, const char *name, g4_slow_fn call)
{
    static const int moments[] = { 0, 3, 20, 70 };
    g4_grammar *const had = w->g;
    g4_error err = { 0 };
    double longest = 0;
    int n_cancelled = 0, is_done = 0;
    for (size_t i = 0; i < sizeof moments / sizeof moments[0] && !is_done; i++) {
        pthread_t thread;
        w->canceler.after_ms = moments[i];
        if (pthread_create(&thread, NULL, g4_canceler_main, &w->canceler) != 0) break;
        const g4_status st = call(w, &err);
        const double end = g4_seconds();
        pthread_join(thread, NULL);
        g4_cancel_clear(&w->canceler.cancel);
        is_done = st == G4_OK;
        if (!is_done) {
            n_cancelled++;
            G4_EXPECT(st == G4_ERR_CANCELED && w->g == had && strcmp(err.message, "cancelled") == 0, "%s: %s %s", name,
                      g4_status_name(st), err.message);
            longest = fmax(longest, end - w->canceler.set_at);
        } else if (w->g != had) {
            g4_grammar_close(w->g);
            w->g = had;
        }
    }
    w->e->limits.seconds = 0.002;
    double start = g4_seconds();
    const double own = g4_thread_seconds();
    const g4_status late = call(w, &err);
    const double over = g4_seconds() - start - 0.002, own_over = g4_thread_seconds() - own - 0.002;
    w->e->limits.seconds = 0;
    if (late == G4_ERR_CANCELED)
        longest = fmax(longest, over);
    else
        G4_EXPECT(late == G4_OK && own_over <= 0, "%s, %.1f ms late: %s %s", name, 1e3 * own_over, g4_status_name(late),
                  err.message); /* what is remembered is there in time */
    start = g4_seconds();
    G4_EXPECT(call(w, &err) == G4_OK, "%s: %s", name, err.message);
    printf("  %-36s stops within %6.1f ms of %7.1f ms, cancelled %d times\n", name, 1e3 * longest,
           1e3 * (g4_seconds() - start), n_cancelled);
    G4_EXPECT(longest < 2.0, "%s: %.3f s to stop", name, longest); /* generous: the machine may be busy */
    G4_EXPECT(n_cancelled > 0, "%s was never cancelled", name);
    if (w->g != had) g4_grammar_close(w->g);
    w->g = had;
}

static void g4_slow_begin(g4_slow *w) { w->text.len = 0; }

static void g4_slow_enum(g4_slow *w, int n)
{
    g4_buf_str(&w->text, "{\"enum\":[");
    for (int i = 0; i < n; i++) g4_buf_fmt(&w->text, "%s\"value %d\"", i > 0 ? "," : "", i * 7919 % 100003);
    g4_buf_str(&w->text, "]}");
}

static void g4_slow_compile(g4_slow *w)
{
    g4_slow_begin(w);
    g4_slow_enum(w, 30000);
    g4_cancel_each(w, "schema: 30000 enums", g4_slow_schema);

    g4_slow_begin(w);
    g4_buf_str(&w->text, "{\"type\":\"object\",\"properties\":{");
    for (int i = 0; i < 3000; i++)
        g4_buf_fmt(&w->text, "%s\"p%d\":{\"pattern\":\"^([a-z]{2,9}[0-9]{1,4}){%d}$\"}", i > 0 ? "," : "", i, i + 2);
    g4_buf_str(&w->text, "}}");
    g4_cancel_each(w, "schema: counted patterns", g4_slow_schema);

    g4_slow_begin(w);
    g4_buf_str(&w->text, "{\"oneOf\":[");
    for (int i = 0; i < 500; i++)
        g4_buf_fmt(&w->text,
                   "%s{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":%d},\"v%d\":{\"type\":\"string\"}},"
                   "\"required\":[\"kind\",\"v%d\"],\"additionalProperties\":false}",
                   i > 0 ? "," : "", i, i, i);
    g4_buf_str(&w->text, "]}");
    g4_cancel_each(w, "schema: 500 that exclude each other", g4_slow_schema);

    g4_slow_begin(w);
    g4_buf_str(&w->text, "root ::= r0\n");
    for (int i = 0; i < 4000; i++) g4_buf_fmt(&w->text, "r%d ::= [a-z]{1,20} | \"x\" r%d\n", i, (i + 1) % 4000);
    g4_cancel_each(w, "rules: 4000", g4_slow_rules);

    g4_slow_begin(w);
    g4_buf_str(&w->text, "[");
    for (int i = 0; i < 1500; i++) {
        g4_buf_fmt(&w->text,
                   "%s{\"function\":{\"name\":\"f%d\",\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":",
                   i > 0 ? "," : "", i);
        g4_slow_enum(w, 10);
        g4_buf_str(&w->text, "}}}}");
    }
    g4_buf_str(&w->text, "]");
    g4_cancel_each(w, "tools: 1500", g4_slow_tools);
}

static void g4_slow_masks(g4_slow *w)
{
    static const char *const rules[][2] = {
        { "masks: alternatives of classes", "root ::= (.{1,20} \"a\" | [^x]{3,20} \"c\"){1,2}" },
        { "masks: any text in a tree", "root ::= node\nnode ::= \"(\" (.{0,300} | node){0,4} \")\" | .{1,200}" },
    };
    g4_error err = { 0 };
    for (int i = 0; i < 2; i++) {
        G4_EXPECT(g4_grammar_from_rules(&w->g, w->e, rules[i][1], 0, NULL, &err) == G4_OK, "%s", err.message);
        if (w->g == NULL) continue;
        g4_cancel_each(w, rules[i][0], g4_slow_mask);
        g4_grammar_close(w->g);
        w->g = NULL;
    }
}

static void g4_slow_chats(g4_slow *w)
{
    enum { MESSAGES = 40000 };
    g4_error err = { 0 };
    g4_slow_begin(w);
    g4_buf_str(&w->text, "[{\"role\":\"user\",\"content\":\"x\",\"list\":[");
    for (int i = 0; i < 300000; i++)
        g4_buf_fmt(&w->text, "%s{\"k%d\":%d.5,\"t\":\"some text\"}", i > 0 ? "," : "", i, i);
    g4_buf_str(&w->text, "]}]");
    g4_cancel_each(w, "g4_chat_parse: 10 MB", g4_slow_parse);

    g4_slow_begin(w);
    g4_buf_str(&w->text, "[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{");
    for (int i = 0; i < 60000; i++) g4_buf_fmt(&w->text, "%s\"k%d\":%d.5", i > 0 ? "," : "", i * 7001 % 1000003, i);
    g4_buf_str(&w->text, "}}}]}]");
    g4_cancel_each(w, "g4_chat_parse: a map of 60000", g4_slow_parse);

    w->part = (g4_part) { .kind = G4_PART_TEXT, .text = "Some text of a message, neither long nor short." };
    w->messages = calloc(MESSAGES, sizeof *w->messages);
    for (int i = 0; w->messages != NULL && i < MESSAGES; i++)
        w->messages[i] = (g4_message) { .role = i % 2 ? G4_ROLE_MODEL : G4_ROLE_USER, .parts = &w->part, .n_parts = 1 };
    w->n_messages = MESSAGES;
    g4_cancel_each(w, "g4_chat_open: 40000 messages", g4_slow_open);
    free(w->messages);

    g4_slow_begin(w);
    for (int i = 0; w->text.len < 10000000; i++)
        g4_buf_fmt(&w->text, "Line %d says \xc3\xa9t\xc3\xa9 and %d words, %s. ", i, i * 31,
                   i % 3 ? "for(;;)" : "wonderful");
    g4_cancel_each(w, "g4_tokenize: 10 MB", g4_slow_tokenize);
    const g4_part long_text = { .kind = G4_PART_TEXT, .text = w->text.data, .text_len = w->text.len };
    const g4_message m = { .role = G4_ROLE_USER, .parts = &long_text, .n_parts = 1 };
    const g4_chat_options opt = { .template_name = G4_TEMPLATE_USED };
    G4_EXPECT(g4_chat_open(&w->c, w->e, &m, 1, &opt, &err) == G4_OK, "%s", err.message);
    if (w->c != NULL) g4_cancel_each(w, "g4_chat_prompt: 10 MB", g4_slow_prompt);
    g4_chat_close(w->c);
    w->c = NULL;

    g4_slow_begin(w); /* nothing but copying, or passing over */
    while (w->text.len < 40000000) g4_buf_str(&w->text, "The same sentence, once more. ");
    const g4_part copied = { .kind = G4_PART_TEXT, .text = w->text.data, .text_len = w->text.len };
    w->messages = &(g4_message) { .role = G4_ROLE_USER, .parts = &copied, .n_parts = 1 };
    w->n_messages = 1;
    g4_cancel_each(w, "g4_chat_open: one text of 40 MB", g4_slow_open);
    memset(w->text.data, ' ', w->text.len - 12);
    memcpy(w->text.data + w->text.len - 12, "root ::= \"a\"", 12);
    g4_cancel_each(w, "rules: 40 MB of blanks", g4_slow_rules);

    g4_slow_begin(w);
    for (int i = 0; i < 500000; i++) g4_buf_add(&w->text, "aaa", 3);
    g4_cancel_each(w, "g4_tokenize: one word of 1.5 MB", g4_slow_tokenize);
}

static void g4_test_cancel(void)
{
    g4_slow w = { 0 };
    g4_error err = { 0 };
    const g4_engine_options eo = { .model_path = "tests/data/vocab.g4",
                                   .n_threads = 1,
                                   .limits = { .cancel = &w.canceler.cancel } };
    G4_EXPECT(g4_engine_open(&w.e, &eo, &err) == G4_OK, "%s", err.message);
    if (w.e == NULL) return;
    printf("calls that are cancelled:\n");
    g4_slow_compile(&w);
    g4_slow_masks(&w);
    g4_slow_chats(&w);
    g4_buf_free(&w.text);
    g4_engine_close(w.e);
}

/* ---- Answers that are cancelled ------------------------------------------------------------------------------- */

typedef struct {
    g4_session *s;
    int n, cancel_at; /* tokens; 0: never */
} g4_counter;

static int g4_count_and_cancel(void *user, const g4_output *o)
{
    g4_counter *k = user;
    if (o->token >= 0 && ++k->n == k->cancel_at) g4_session_cancel(k->s);
    return 0;
}

/* The texts of an answer, one behind the other. */
static void g4_answer_text(const g4_response *r, g4_buf *out)
{
    int n;
    const g4_part *parts = g4_response_parts(r, &n);
    for (int i = 0; i < n; i++) g4_buf_add(out, parts[i].text, parts[i].text_len);
}

static void g4_test_partial(void)
{
    g4_error err = { 0 };
    g4_world w;
    if (!g4_world_open(&w, g4_have_both)) return;
    const g4_sampling sampling = { .temperature = 1.0f, .seed = 11 };
    g4_counter counter = { .s = w.s };
    g4_generate_options gen = {
        .sampling = &sampling, .max_tokens = 40, .output = g4_count_and_cancel, .user = &counter
    };
    const g4_respond_options opt = { .generate = &gen, .guide = { .grammar = w.g, .tool_choice = G4_TOOLS_NONE } };
    const int n_prompt = g4_session_n(w.s), n_vocab = (int)g4_engine_config(w.e)->n_vocab;
    g4_buf whole = { 0 };
    g4_result result;
    G4_EXPECT(g4_session_respond(w.s, w.c, &opt, &w.r, &result, &err) == G4_OK, "%s", err.message);
    g4_answer_text(w.r, &whole);
    const int n_whole = result.n_tokens;
    g4_response_close(w.r);
    w.r = NULL;
    G4_EXPECT(n_whole > 8, "%d tokens", n_whole);
    for (int at = 1; at < n_whole; at++) {
        g4_buf part = { 0 };
        G4_EXPECT(g4_session_sync_chat(w.s, w.c, NULL, &err) == G4_OK && g4_session_n(w.s) == n_prompt, "%s",
                  err.message);
        counter = (g4_counter) { .s = w.s, .cancel_at = at };
        const g4_status st = g4_session_respond(w.s, w.c, &opt, &w.r, &result, &err);
        G4_EXPECT(st == G4_ERR_CANCELED && w.r != NULL && strcmp(err.message, "cancelled") == 0 &&
                      result.stop == G4_STOP_CANCELED,
                  "%d: %s %s", at, g4_status_name(st), err.message);
        g4_answer_text(w.r, &part);
        G4_EXPECT(part.len <= whole.len && (part.len == 0 || memcmp(part.data, whole.data, part.len) == 0),
                  "%d: the answer so far is no prefix", at);
        G4_EXPECT(result.n_tokens <= at && g4_session_n(w.s) == n_prompt + result.n_tokens, "%d: %d tokens", at,
                  result.n_tokens);
        g4_response_close(w.r);
        w.r = NULL;
        g4_buf_free(&part);
        /* what is there is what a new session would have, and goes on */
        g4_session *fresh = NULL;
        G4_EXPECT(g4_session_open(&fresh, w.e, &(g4_session_options) { .n_ctx = 800 }, &err) == G4_OK &&
                      g4_session_sync_chat(fresh, w.c, NULL, &err) == G4_OK,
                  "%s", err.message);
        if (fresh == NULL) break;
        if (result.n_tokens > 0) g4_session_eval(fresh, g4_session_tokens(w.s) + n_prompt, result.n_tokens, &err);
        G4_EXPECT(memcmp(g4_session_logits(fresh), g4_session_logits(w.s), (size_t)n_vocab * sizeof(float)) == 0,
                  "%d: other logits", at);
        g4_session_close(fresh);
        /* the same call continues it: the reader and the guide know what is there */
        const int n_there = result.n_tokens;
        counter = (g4_counter) { .s = w.s };
        gen.max_tokens = 40 - n_there;
        G4_EXPECT(g4_session_respond(w.s, w.c, &opt, &w.r, &result, &err) == G4_OK &&
                      n_there + result.n_tokens == n_whole,
                  "%d: continued to %d tokens: %s", at, n_there + result.n_tokens, err.message);
        g4_buf all = { 0 };
        g4_answer_text(w.r, &all);
        G4_EXPECT(all.len == whole.len && memcmp(all.data, whole.data, all.len) == 0, "%d: continued otherwise", at);
        g4_buf_free(&all);
        g4_response_close(w.r);
        w.r = NULL;
        gen.max_tokens = 40;
    }
    /* out of time before it begins: nothing is given out but what there is */
    G4_EXPECT(g4_session_sync_chat(w.s, w.c, NULL, &err) == G4_OK, "%s", err.message);
    gen.limits.seconds = 1e-9;
    G4_EXPECT(g4_session_respond(w.s, w.c, &opt, &w.r, &result, &err) == G4_ERR_CANCELED && result.n_tokens == 0 &&
                  result.stop == G4_STOP_CANCELED && strstr(err.message, "seconds") != NULL &&
                  g4_session_n(w.s) == n_prompt,
              "%s", err.message);
    g4_buf_free(&whole);
    g4_world_close(&w);
}

/* A guide of a cancelled reply stands where the timeline stands, so that the text is whole in the end. */
static void g4_test_text(void)
{
    g4_error err = { 0 };
    g4_world w;
    if (!g4_world_open(&w, g4_have_text)) return;
    for (int seed = 0; seed < 12; seed++) {
        const g4_sampling sampling = { .temperature = 1.0f, .seed = (uint64_t)seed };
        g4_counter counter = { .s = w.s, .cancel_at = 1 + seed };
        g4_generate_options gen = {
            .sampling = &sampling, .output = g4_count_and_cancel, .user = &counter, .no_guard = 1
        };
        g4_guide *guide = NULL;
        g4_result result;
        g4_buf text = { 0 };
        g4_json *v = NULL;
        const int before = g4_session_n(w.s);
        G4_EXPECT(g4_guide_open_text(&guide, w.e, w.g, &err) == G4_OK, "%s", err.message);
        gen.constraint = g4_guide_constraint(guide);
        g4_status st = g4_session_generate(w.s, &gen, &result, &err);
        G4_EXPECT(st == G4_ERR_CANCELED, "%s", g4_status_name(st));
        st = g4_session_generate(w.s, &gen, &result, &err);
        G4_EXPECT(st == G4_OK && (result.stop == G4_STOP_END || result.stop == G4_STOP_CONSTRAINT), "seed %d: %s, %s",
                  seed, err.message, g4_stop_name(result.stop));
        for (int i = before; i < g4_session_n(w.s); i++) {
            char piece[256];
            g4_buf_add(&text, piece, g4_token_bytes(w.e, g4_session_tokens(w.s)[i], 1, piece));
        }
        st = g4_json_parse(&v, NULL, text.data, text.len, &err);
        const g4_json *n = g4_json_get(v, "n");
        G4_EXPECT(st == G4_OK && g4_json_is(n, G4_JSON_NUMBER) && n->number >= 1 && n->number <= 20 &&
                      g4_json_get(v, "s") != NULL,
                  "seed %d: %s: %.*s", seed, err.message, (int)text.len, text.data);
        g4_json_free(NULL, v);
        g4_buf_free(&text);
        g4_guide_close(guide);
    }
    g4_world_close(&w);
}

/* ---- Misuse --------------------------------------------------------------------------------------------------- */

static void g4_refuses(g4_status st, const g4_error *err, const char *says, int line)
{
    G4_EXPECT(st == G4_ERR_ARGUMENT && strstr(err->message, says) != NULL && strchr(err->message, '\n') == NULL,
              "line %d: %s \"%s\", not \"%s\"", line, g4_status_name(st), err->message, says);
}
#define G4_REFUSES(call, says) (err = (g4_error) { 0 }, g4_refuses((call), &err, (says), __LINE__))

static void g4_test_nulls(g4_world *w)
{
    g4_error err;
    g4_chat *c = NULL;
    g4_grammar *g = NULL;
    g4_guide *guide = NULL;
    g4_response *r = NULL;
    g4_prompt p;
    g4_chat_medium medium;
    g4_box *boxes;
    int n = 5;
    size_t len = 5;
    const g4_part odd = { .kind = (g4_part_kind)99 }, no_picture = { .kind = G4_PART_IMAGE },
                  no_sound = { .kind = G4_PART_AUDIO }, no_video = { .kind = G4_PART_VIDEO },
                  no_text = { .kind = G4_PART_TEXT, .text_len = 5 }, text = { .kind = G4_PART_TEXT, .text = "x" },
                  call = { .kind = G4_PART_TOOL_CALL, .name = "f" };
    const g4_message lacks = { .role = G4_ROLE_USER, .n_parts = 2 }, negative = { .role = G4_ROLE_USER, .n_parts = -1 },
                     who = { .role = (g4_role)77, .parts = &text, .n_parts = 1 },
                     other = { .role = G4_ROLE_OTHER, .parts = &text, .n_parts = 1 };
    const g4_message tool[2] = { { .role = G4_ROLE_MODEL, .parts = &call, .n_parts = 1 },
                                 { .role = G4_ROLE_TOOL, .n_parts = 3 } };
    const g4_part *const parts[] = { &odd, &no_picture, &no_sound, &no_video, &no_text };
    static const char *const says[] = { "kind", "without its data", "without its data", "without its data",
                                        "text is NULL" };
    const g4_chat_options named = { .template_name = G4_TEMPLATE_USED },
                          no_tools = { .template_name = G4_TEMPLATE_USED, .tools_len = 4 };
    for (int i = 0; i < 5; i++) {
        const g4_message m = { .role = G4_ROLE_USER, .parts = parts[i], .n_parts = 1 };
        G4_REFUSES(g4_chat_open(&c, w->e, &m, 1, &named, &err), says[i]);
    }
    G4_REFUSES(g4_chat_open(NULL, w->e, NULL, 0, &named, &err), "out is NULL");
    G4_REFUSES(g4_chat_open(&c, w->e, NULL, 1, &named, &err), "messages is NULL");
    G4_REFUSES(g4_chat_open(&c, w->e, &lacks, -1, &named, &err), "-1 messages");
    G4_REFUSES(g4_chat_open(&c, w->e, &lacks, 1, &named, &err), "parts are missing");
    G4_REFUSES(g4_chat_open(&c, w->e, &negative, 1, &named, &err), "parts are missing");
    G4_REFUSES(g4_chat_open(&c, w->e, tool, 2, &named, &err), "parts are missing");
    G4_REFUSES(g4_chat_open(&c, w->e, &who, 1, &named, &err), "no such role");
    G4_REFUSES(g4_chat_open(&c, w->e, &other, 1, &named, &err), "no such role");
    G4_REFUSES(g4_chat_open(&c, w->e, NULL, 0, &no_tools, &err), "tools is NULL");
    G4_REFUSES(g4_chat_parse(&c, w->e, NULL, 3, &named, &err), "json is NULL");
    G4_REFUSES(g4_chat_parse(NULL, w->e, "[]", 2, &named, &err), "out is NULL");
    G4_EXPECT(c == NULL, "a chat of nothing");
    g4_chat_close(NULL);
    G4_EXPECT(g4_chat_text(NULL, &len) == NULL && len == 0 && g4_chat_thinking(NULL) == 0 &&
                  g4_chat_n_media(NULL) == 0 && g4_chat_in_thought(NULL) == 0,
              "a NULL chat says something");
    G4_REFUSES(g4_chat_media(NULL, 0, &medium, &err), "chat is NULL");
    G4_REFUSES(g4_chat_media(w->c, 0, NULL, &err), "out is NULL");
    G4_REFUSES(g4_chat_media(w->c, -1, &medium, &err), "no medium -1");
    G4_REFUSES(g4_chat_media(w->c, 1, &medium, &err), "no medium 1");
    G4_REFUSES(g4_chat_set_image(NULL, 0, &w->image[0], &err), "chat is NULL");
    G4_REFUSES(g4_chat_set_image(w->c, 0, NULL, &err), "set to NULL");
    G4_REFUSES(g4_chat_set_audio(w->c, 0, &(g4_audio) { 0 }, &err), "is a picture, not sound");
    G4_REFUSES(g4_chat_set_video(w->c, 7, &(g4_video) { 0 }, &err), "no medium 7");
    G4_REFUSES(g4_chat_prompt(NULL, &p, &err), "chat is NULL");
    G4_REFUSES(g4_chat_prompt(w->c, NULL, &err), "out is NULL");
    G4_REFUSES(g4_chat_beginning(NULL, &p, &err), "chat is NULL");
    G4_REFUSES(g4_session_sync_chat(NULL, w->c, NULL, &err), "session is NULL");
    G4_REFUSES(g4_session_sync_chat(w->s, NULL, NULL, &err), "chat is NULL");
    G4_REFUSES(g4_response_open(NULL, w->e, 0, NULL, NULL, &err), "out is NULL");
    G4_REFUSES(g4_response_open(&r, NULL, 0, NULL, NULL, &err), "engine is NULL");
    G4_REFUSES(g4_response_finish(NULL, &err), "response is NULL");
    G4_EXPECT(g4_response_push(NULL, 5) != 0 && g4_response_parts(NULL, &n) == NULL && n == 0, "a NULL answer");
    g4_response_close(NULL);
    G4_REFUSES(g4_grammar_from_schema(&g, NULL, "{}", 0, NULL, &err), "engine is NULL");
    G4_REFUSES(g4_grammar_from_schema(&g, w->e, NULL, 2, NULL, &err), "schema is NULL");
    G4_REFUSES(g4_grammar_from_rules(&g, w->e, NULL, 0, NULL, &err), "rules is NULL");
    G4_REFUSES(g4_grammar_from_rules(NULL, w->e, "a ::= \"b\"", 0, NULL, &err), "out is NULL");
    G4_REFUSES(g4_grammar_from_tools(&g, w->e, NULL, 0, NULL, NULL, &err), "tools is NULL");
    g4_grammar_close(NULL);
    G4_REFUSES(g4_guide_open(&guide, NULL, NULL, &err), "chat is NULL");
    G4_REFUSES(g4_guide_open(NULL, w->c, NULL, &err), "out is NULL");
    G4_REFUSES(g4_guide_open(&guide, w->c, &(g4_guide_options) { .tool_choice = (g4_tool_choice)9 }, &err),
               "tool choice 9");
    G4_REFUSES(g4_guide_open_text(&guide, w->e, NULL, &err), "grammar is NULL");
    G4_REFUSES(g4_guide_open_text(&guide, NULL, w->g, &err), "engine is NULL");
    G4_EXPECT(g4_guide_constraint(NULL) == NULL && guide == NULL && g == NULL, "a guide of nothing");
    g4_guide_close(NULL);
    G4_REFUSES(g4_session_respond(NULL, w->c, NULL, &r, NULL, &err), "session is NULL");
    G4_REFUSES(g4_session_respond(w->s, NULL, NULL, &r, NULL, &err), "chat is NULL");
    G4_REFUSES(g4_session_respond(w->s, w->c, NULL, NULL, NULL, &err), "out is NULL");
    G4_REFUSES(g4_boxes_read(&boxes, &n, NULL, 3, 10, 10, NULL, &err), "text is NULL");
    G4_REFUSES(g4_boxes_read(NULL, &n, "x", 1, 10, 10, NULL, &err), "out is NULL");
    G4_REFUSES(g4_boxes_read(&boxes, NULL, "x", 1, 10, 10, NULL, &err), "n is NULL");
    G4_REFUSES(g4_boxes_read(&boxes, &n, "x", 1, -10, 10, NULL, &err), "-10 x 10");
    g4_boxes_free(NULL, 3, NULL);
}

/* A session that does not hold the chat that it is to answer. */
static void g4_test_unsynced(g4_world *w)
{
    g4_error err;
    g4_session *s = NULL;
    g4_chat *other = NULL;
    g4_response *r = NULL;
    g4_prompt p;
    const g4_generate_options gen = { .max_tokens = 2 };
    const g4_respond_options opt = { .generate = &gen };
    G4_EXPECT(g4_session_open(&s, w->e, &(g4_session_options) { .n_ctx = 800 }, &err) == G4_OK, "%s", err.message);
    G4_REFUSES(g4_session_respond(s, w->c, &opt, &r, NULL, &err), "does not hold this conversation");
    G4_EXPECT(g4_session_eval_text(s, "the cat", 0, &err) == G4_OK, "%s", err.message);
    G4_REFUSES(g4_session_respond(s, w->c, &opt, &r, NULL, &err), "does not hold this conversation");
    G4_EXPECT(g4_session_n(s) > 0 && r == NULL, "%d tokens", g4_session_n(s));
    G4_EXPECT(g4_world_chat(w, &other, 1, &err) == G4_OK, "%s", err.message);
    G4_REFUSES(g4_session_respond(w->s, other, &opt, &r, NULL, &err), "does not hold this conversation");
    /* another picture in the same words: the tokens are the same */
    g4_image swapped = w->image[1];
    G4_EXPECT(g4_chat_set_image(w->c, 0, &swapped, &err) == G4_OK && g4_chat_prompt(w->c, &p, &err) == G4_OK, "%s",
              err.message);
    G4_REFUSES(g4_session_respond(w->s, w->c, &opt, &r, NULL, &err), "does not hold this conversation");
    G4_EXPECT(g4_session_sync_chat(w->s, w->c, NULL, &err) == G4_OK, "%s", err.message);
    /* prompts that are made in between do not matter, and an answer may be continued */
    for (int i = 0; i < 2; i++) {
        G4_EXPECT(g4_chat_prompt(w->c, &p, &err) == G4_OK, "%s", err.message);
        G4_EXPECT(g4_session_respond(w->s, w->c, &opt, &r, NULL, &err) == G4_OK, "%s", err.message);
        g4_response_close(r);
    }
    G4_EXPECT(g4_chat_set_image(w->c, 0, &w->image[0], &err) == G4_OK, "%s", err.message);
    G4_EXPECT(g4_session_sync_chat(w->s, w->c, NULL, &err) == G4_OK, "%s", err.message);
    g4_chat_close(other);
    g4_session_close(s);
}

typedef struct { /* what a callback does that it may not */
    g4_world *w;
    g4_response *r;
    g4_guide *guide;
    int n;
} g4_intruder;

static int g4_intrude(void *user, int index, const g4_part *delta)
{
    g4_intruder *k = user;
    g4_error err;
    g4_response *r = NULL;
    int n = 7;
    (void)index, (void)delta;
    k->n++;
    if (k->r != NULL) {
        G4_EXPECT(g4_response_push(k->r, k->w->tokens[0]) != 0, "a callback could push");
        G4_REFUSES(g4_response_finish(k->r, &err), "in a call");
        G4_EXPECT(g4_response_parts(k->r, &n) == NULL && n == 0, "%d parts of an answer that goes on", n);
        g4_response_close(k->r);
    }
    if (k->w->s != NULL) {
        G4_REFUSES(g4_session_respond(k->w->s, k->w->c, NULL, &r, NULL, &err), "in a call");
        G4_REFUSES(g4_session_sync_chat(k->w->s, k->w->c, NULL, &err), "in a call");
        g4_session_close(k->w->s);
    }
    return 0;
}

static int g4_intrude_output(void *user, const g4_output *o)
{
    g4_intruder *k = user;
    if (k->guide != NULL) g4_guide_close(k->guide);
    return g4_intrude(user, 0, NULL) + (o->token < -1);
}

static int g4_intrude_progress(void *user, uint64_t done, uint64_t total)
{
    g4_intruder *k = user;
    g4_error err;
    g4_prompt p;
    (void)done, (void)total;
    k->n++;
    G4_REFUSES(g4_chat_set_image(k->w->c, 0, &k->w->image[1], &err), "in a call");
    G4_EXPECT(g4_chat_prompt(k->w->c, &p, &err) == G4_OK, "%s", err.message);
    g4_chat_close(k->w->c);
    return 0;
}

static void g4_test_callbacks(g4_world *w)
{
    g4_error err = { 0 };
    g4_intruder k = { .w = w };
    g4_session *s = NULL;
    g4_result result;
    const g4_generate_options gen = { .max_tokens = 12, .output = g4_intrude_output, .user = &k };
    const g4_respond_options opt = { .generate = &gen, .guide = { .grammar = w->g }, .part = g4_intrude, .user = &k };
    G4_EXPECT(g4_session_respond(w->s, w->c, &opt, &w->r, &result, &err) == G4_OK && k.n > 0, "%s, %d calls",
              err.message, k.n);
    /* a guide that is in use, closed by the callback of the reply it guides */
    g4_generate_options text = gen;
    G4_EXPECT(g4_guide_open_text(&k.guide, w->e, w->g, &err) == G4_OK, "%s", err.message);
    text.constraint = g4_guide_constraint(k.guide);
    G4_EXPECT(g4_session_generate(w->s, &text, &result, &err) == G4_OK && result.n_tokens > 0, "%s", err.message);
    g4_guide_close(k.guide);
    k.guide = NULL;
    /* the chat of a sync */
    k.n = 0;
    G4_EXPECT(g4_session_open(
                  &s, w->e,
                  &(g4_session_options) { .n_ctx = 800, .chunk = 16, .progress = g4_intrude_progress, .user = &k },
                  &err) == G4_OK &&
                  g4_session_sync_chat(s, w->c, NULL, &err) == G4_OK && k.n > 0,
              "%s", err.message);
    g4_session_close(s);
    /* an answer of one's own */
    g4_world own;
    if (!g4_world_open(&own, g4_have_response)) return;
    g4_response_close(own.r);
    k = (g4_intruder) { .w = &own };
    G4_EXPECT(g4_response_open(&own.r, own.e, 0, g4_intrude, &k, &err) == G4_OK, "%s", err.message);
    k.r = own.r;
    for (int i = 0; i < own.n_tokens; i++) g4_response_push(own.r, own.tokens[i]);
    G4_EXPECT(g4_response_finish(own.r, &err) == G4_OK && k.n > 3, "%s, %d calls", err.message, k.n);
    G4_EXPECT(g4_response_push(own.r, 5) != 0, "a finished answer takes tokens");
    int n;
    G4_EXPECT(g4_response_parts(own.r, &n) != NULL && n > 3, "%d parts", n);
    g4_world_close(&own);
}

static void g4_test_misuse(void)
{
    g4_world w;
    if (!g4_world_open(&w, g4_have_both)) return;
    g4_test_nulls(&w);
    g4_test_unsynced(&w);
    g4_test_callbacks(&w);
    g4_world_close(&w);
}

int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : "";
    if (strstr("misuse", only)) g4_test_misuse();
    if (strstr("partial", only)) g4_test_partial();
    if (strstr("text", only)) g4_test_text();
    if (strstr("memory", only)) g4_test_memory();
    if (strstr("cancel", only)) g4_test_cancel();
    return g4_test_end();
}
