/* turn.c - a turn of the model: the conversation becomes a prompt, the prompt an answer, the answer a message of the
 * conversation. When the model calls tools that can be answered here, it gets another turn with their results. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* ---- What guides the answers ---------------------------------------------------------------------- */

static void choose_tools(conversation *c)
{
    const char *choice = c->args->tool_choice;
    if (choice == NULL || strcmp(choice, "auto") == 0)
        c->guide.tool_choice = G4_TOOLS_AUTO;
    else if (strcmp(choice, "none") == 0)
        c->guide.tool_choice = G4_TOOLS_NONE;
    else if (strcmp(choice, "required") == 0)
        c->guide.tool_choice = G4_TOOLS_REQUIRED;
    else
        c->guide.tool_choice = G4_TOOLS_NAMED;
    if (c->guide.tool_choice == G4_TOOLS_NAMED) c->guide.tool_name = choice;
}

static void tell_loosened(void *user, const char *text)
{
    (void)user;
    say(DONE, "loosened: %s", text);
}

static void choose_schemas(conversation *c)
{
    const arguments *a = c->args;
    c->schema = (g4_schema_options) { .strict = a->strict_schema, .closed = a->closed_schema, .warn = tell_loosened };
    c->guide.schema = &c->schema;
}

/* --json-schema and --grammar are files, or the texts themselves: a schema begins with a brace, rules have a ::= . */
static int schema_grammar(g4_grammar **out, const g4_engine *e, const char *schema, const g4_schema_options *opt)
{
    buffer text = { 0 };
    g4_error err;
    int is_text = schema[strspn(schema, " \t\r\n")] == '{', status = text_or_file(schema, is_text, &text);
    if (status == DONE && g4_grammar_from_schema(out, e, buffer_text(&text), text.len, opt, &err) != G4_OK)
        status = report_of(is_text ? "--json-schema" : schema, &err);
    buffer_free(&text);
    return status;
}

static int rules_grammar(g4_grammar **out, const g4_engine *e, const char *rules)
{
    buffer text = { 0 };
    g4_error err;
    int is_text = strstr(rules, "::=") != NULL, status = text_or_file(rules, is_text, &text);
    if (status == DONE && g4_grammar_from_rules(out, e, buffer_text(&text), text.len, NULL, &err) != G4_OK)
        status = report_of(is_text ? "--grammar" : rules, &err);
    buffer_free(&text);
    return status;
}

int grammar_open(g4_grammar **out, const g4_engine *e, const arguments *a, const g4_schema_options *opt)
{
    if (a->json_schema != NULL) return schema_grammar(out, e, a->json_schema, opt);
    return a->grammar != NULL ? rules_grammar(out, e, a->grammar) : DONE;
}

int conversation_grammar(conversation *c)
{
    choose_schemas(c);
    return grammar_open(&c->guide.grammar, c->engine, c->args, &c->schema);
}

int conversation_guide(conversation *c)
{
    const arguments *a = c->args;
    choose_schemas(c);
    choose_tools(c);
    int status = a->tools != NULL ? tools_declare(c, a->tools) : DONE;
    c->guide.think_budget = a->think > 1 ? a->think - 1 : 0;
    if (status == DONE) status = conversation_grammar(c);
    return status == DONE && c->request != NULL ? document_guide(c) : status;
}

/* ---- The answer as a message, and as JSON ----------------------------------------------------------- */

/* The answer becomes a message. */
static int keep_answer(conversation *c, const answer_writer *w)
{
    int n_parts = 0, n = 0, n_calls = 0;
    const g4_part *parts = g4_response_parts(w->response, &n_parts);
    message_part *kept = NULL;
    for (int i = 0; i < n_parts; i++) {
        message_part *p = part_add(&kept, &n, parts[i].kind);
        if (p == NULL) {
            parts_free(kept, n);
            return FAILED;
        }
        buffer_add(&p->text, parts[i].text, parts[i].text_len);
        if (parts[i].name != NULL) buffer_str(&p->name, parts[i].name);
        p->incomplete = parts[i].incomplete || (p->kind == G4_PART_TEXT && c->last.is_cut && i == n_parts - 1);
        if (p->kind == G4_PART_TOOL_CALL) buffer_fmt(&p->id, "call_%d_%d", c->n, n_calls++);
    }
    return message_add(c, G4_ROLE_MODEL, kept, n);
}

static void add_json_call(buffer *b, const message_part *call)
{
    buffer_fmt(b, "{\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":", buffer_text(&call->id));
    buffer_quote(b, buffer_text(&call->name), call->name.len); /* empty when the call never got to it */
    buffer_str(b, ",\"arguments\":");
    buffer_quote(b, call->text.data, call->text.len);
    buffer_str(b, "}}");
}

/* The members of the --json object beyond its content. */
static void add_json_members(buffer *b, const message *m)
{
    buffer thoughts = { 0 }, calls = { 0 }, cut = { 0 };
    for (int i = 0; i < m->n; i++) {
        const message_part *p = &m->parts[i];
        if (p->kind == G4_PART_THOUGHT) buffer_add(&thoughts, p->text.data, p->text.len);
        if (p->kind != G4_PART_TOOL_CALL) continue;
        buffer *list = p->incomplete ? &cut : &calls;
        if (list->len > 0) buffer_str(list, ",");
        add_json_call(list, p);
    }
    if (thoughts.len > 0) {
        buffer_str(b, ",\"reasoning\":");
        buffer_quote(b, thoughts.data, thoughts.len);
    }
    if (calls.len > 0) buffer_fmt(b, ",\"tool_calls\":[%s]", calls.data);
    if (cut.len > 0) buffer_fmt(b, ",\"incomplete_calls\":[%s]", cut.data);
    b->failed |= thoughts.failed | calls.failed | cut.failed;
    buffer_free(&thoughts);
    buffer_free(&calls);
    buffer_free(&cut);
}

/* ---- Boxes ------------------------------------------------------------------------------------------ */

static const g4_image *last_picture(g4_chat *chat)
{
    g4_chat_medium m;
    for (int i = g4_chat_n_media(chat) - 1; i >= 0; i--) {
        if (g4_chat_media(chat, i, &m, NULL) == G4_OK && m.image != NULL) return m.image;
    }
    return NULL;
}

static void draw_boxes(uint8_t *pixels, const g4_image *image, const g4_box *boxes, int n)
{
    static const uint8_t colours[][3] = {
        { 230, 25, 75 }, { 0, 130, 200 }, { 60, 180, 75 }, { 245, 130, 48 }, { 145, 30, 180 }
    };
    const int n_colours = sizeof colours / sizeof colours[0];
    for (int i = 0; i < n; i++) {
        const g4_box *b = &boxes[i];
        int margin = b->is_point ? 3 : 0; /* a point is shown as a small box */
        const int box[4] = { b->x0 - margin, b->y0 - margin, b->x1 + margin, b->y1 + margin };
        g4_draw_box(pixels, image->width, image->height, image->stride, box, b->label, colours[i % n_colours]);
    }
}

static int write_picture(const g4_image *image, const char *path)
{
    output_file out;
    g4_error err;
    int status = output_open(&out, path);
    if (status != DONE) return status;
    if (g4_png_write(image, output_write, &out, NULL, &err) != G4_OK && !ferror(out.f) && !interrupted())
        status = report(&err);
    return output_close(&out, status); /* says so when a write failed, and returns an interrupt */
}

/* Draw what the answer points at on the last picture of the conversation. */
static int write_boxes(const conversation *c, g4_chat *chat, const buffer *text)
{
    const g4_image *image = last_picture(chat);
    g4_box *boxes = NULL;
    g4_error err;
    int n = 0, status = DONE;
    if (image == NULL) return say(FAILED, "--boxes: there is no picture to draw on");
    if (g4_boxes_read(&boxes, &n, buffer_text(text), text->len, image->width, image->height, NULL, &err) != G4_OK) {
        return report(&err);
    }
    g4_image drawn = *image;
    if (drawn.stride == 0) drawn.stride = 3 * (size_t)image->width;
    size_t size = drawn.stride * (size_t)image->height;
    uint8_t *pixels = malloc(size);
    if (pixels == NULL) {
        status = say(FAILED, "no memory for the picture");
    } else {
        memcpy(pixels, image->pixels, size);
        draw_boxes(pixels, &drawn, boxes, n);
        drawn.pixels = pixels;
        status = write_picture(&drawn, c->args->boxes);
    }
    if (status == DONE && !c->args->quiet) say(DONE, "%d boxes drawn to %s", n, c->args->boxes);
    free(pixels);
    g4_boxes_free(boxes, n, NULL);
    return status;
}

/* ---- The turn --------------------------------------------------------------------------------------- */

/* The conversation as a prompt, evaluated. *chat and *guide are the caller's to close also after a failure. */
static int read_prompt(conversation *c, g4_chat **chat, g4_guide **guide)
{
    g4_sync_counts counts = { 0 };
    g4_error err;
    double start = seconds_now();
    int status = conversation_fit(c, chat);
    if (status == DONE && g4_guide_open(guide, *chat, &c->guide, &err) != G4_OK) status = report(&err);
    if (status == DONE && g4_session_sync_chat(c->session, *chat, &counts, &err) != G4_OK)
        status = err.code == G4_ERR_CONTEXT ? conversation_too_long(c) : report(&err);
    if (status == DONE) c->has_forgotten = 0; /* the session holds the conversation and nothing else */
    progress_end(&c->progress);
    if (status != DONE && status != interrupted()) return status;
    c->last = (figures) { .prompt_tokens = counts.prompt,
                          .reused = counts.reused,
                          .prompt_seconds = seconds_now() - start,
                          .finish = "interrupted", /* until it is answered */
                          .is_cut = 1 };
    return status;
}

/* What is done with an answer: it joins the conversation and its calls are answered, or it ends here. One that was cut
 * off, or interrupted, is kept as far as it came, and none of its calls is carried out. */
static int take_answer(conversation *c, g4_chat *chat, const answer_writer *w, int *again)
{
    buffer extra = { 0 };
    int status = DONE, called = DONE;
    if (c->args->max_tokens != 0) {
        int n_calls = answer_calls(w, &c->last);
        status = keep_answer(c, w);
        if (status == DONE) add_json_members(&extra, &c->messages[c->n - 1]);
        if (status == DONE && n_calls > 0 && !interrupted()) called = tools_answer(c, again);
    }
    int is_last = interrupted() || !*again; /* what there is of the answer is told, whatever became of its calls */
    if (status == DONE && extra.failed) status = say(FAILED, "no memory for the answer");
    if (status == DONE && is_last) status = answer_end(w, &c->last, buffer_text(&extra));
    if (status == DONE && is_last && c->last.result.stop == G4_STOP_CONTEXT) conversation_full(c);
    if (status == DONE && is_last && c->args->boxes != NULL) status = write_boxes(c, chat, &w->text);
    buffer_free(&extra);
    if (status == DONE) status = called;
    return status == DONE ? interrupted() : status;
}

/* One answer to the conversation as it stands. When it calls tools that can be answered here, *again is set and their
 * results stand behind it. */
static int take_turn(conversation *c, int *again)
{
    answer_writer w = {
        .args = c->args, .engine = c->engine, .is_guided = c->guide.grammar != NULL, .request = c->request
    };
    g4_chat *chat = NULL;
    g4_guide *guide = NULL;
    *again = 0;
    int status = read_prompt(c, &chat, &guide);
    if (status != DONE && status == interrupted() && c->args->json) answer_end(&w, &c->last, "");
    if (status == DONE) status = answer_open_chat(&w, g4_chat_in_thought(chat));
    if (status == DONE) status = answer_generate(&w, c->session, g4_guide_constraint(guide), &c->last);
    status = answer_finish_chat(&w, status);
    if (status == DONE) status = take_answer(c, chat, &w, again);
    answer_free(&w);
    g4_guide_close(guide);
    g4_chat_close(chat);
    return status;
}

int conversation_answer(conversation *c)
{
    enum { MAX_TURNS = 32 }; /* in a row: a model that only calls must not go on for ever */
    g4_tool_choice choice = c->guide.tool_choice;
    int again = 1, status = DONE;
    for (int i = 0; status == DONE && again; i++) {
        if (i == MAX_TURNS) {
            status = say(FAILED, "the model called tools %d times in a row", MAX_TURNS);
            break;
        }
        status = take_turn(c, &again);
        if (choice != G4_TOOLS_NONE) c->guide.tool_choice = G4_TOOLS_AUTO; /* what was required has been called */
    }
    c->guide.tool_choice = choice;
    return status;
}
