/* conversation.c - conversations: from messages or a document to a prompt, its media, its tokens, and the session that
 * follows it. Both doors lead to the same trees, which template.c renders: g4_chat_open has them built from plain data,
 * g4_chat_parse reads them. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <string.h>

typedef struct { /* a medium that the chat has loaded, one of the three */
    g4_image image;
    g4_audio audio;
    g4_video read, video; /* as it was read; with these frames, which tell the budget */
    g4_image *frames;     /* (n_frames), their pixels those of `read` */
} g4_loaded;

typedef struct { /* a picture, sound or video of the prompt */
    g4_part_kind kind;
    int message;
    const g4_json *part; /* its content part in the tree */
    const g4_image *image;
    const g4_audio *audio;
    const g4_video *video;
    uint8_t *data; /* decoded, owned */
    size_t size;
    g4_loaded *loaded; /* NULL: what is set is the caller's */
    g4_soft **soft;    /* what the towers made of it: of a video the frames, then the blocks of its sound */
    int n_soft, cap_soft, n_frames;
} g4_chat_item;

typedef struct { /* the tokens of a prompt; zero it to start, with `a` set */
    const g4_allocator *a;
    g4_tokens ids;
    g4_medium *placed; /* its media */
    int n_placed, cap_placed;
    int *headers; /* positions right behind each "<|turn>model" line */
    int n_headers, cap_headers;
} g4_prompt_tokens;

struct g4_chat {
    const g4_allocator *a;
    g4_engine *e;   /* may be NULL */
    g4_arena arena; /* nodes, built or parsed */
    g4_render_input in;
    g4_rendered rendered;
    g4_chat_item *media; /* in the order of the prompt */
    int n_media;
    g4_prompt_tokens prompt; /* what g4_chat_prompt gave out */
    int n_calls;             /* in progress: what they use must stay */
    int is_encoding;         /* one of them fills the soft tokens of its media */
    g4_limits limits;        /* of making it and of g4_chat_prompt */
};

/* ---- Opening and closing ------------------------------------------------------------------------- */

/* Forget what the towers made of an item. */
static void g4_chat_item_clear(const g4_chat *c, g4_chat_item *item)
{
    for (int k = 0; k < item->n_soft; k++) g4_soft_close(c->e, item->soft[k]);
    g4_free(c->a, item->soft);
    item->soft = NULL;
    item->n_soft = item->cap_soft = item->n_frames = 0;
}

/* Forget what was loaded for it. */
static void g4_chat_item_unload(const g4_chat *c, g4_chat_item *item)
{
    const g4_media_options opt = { .allocator = c->a };
    g4_loaded *loaded = item->loaded;
    if (loaded == NULL) return;
    g4_image_free(&loaded->image, &opt);
    g4_audio_free(&loaded->audio, &opt);
    g4_video_free(&loaded->read, &opt);
    g4_free(c->a, loaded->frames);
    g4_free(c->a, loaded);
    item->loaded = NULL;
    item->image = NULL;
    item->audio = NULL;
    item->video = NULL;
}

static void g4_prompt_tokens_free(g4_prompt_tokens *p)
{
    g4_free(p->a, p->ids.ids);
    g4_free(p->a, p->placed);
    g4_free(p->a, p->headers);
}

void g4_chat_close(g4_chat *c)
{
    if (c == NULL || c->n_calls > 0) return;
    const g4_allocator *a = c->a;
    for (int i = 0; i < c->n_media; i++) {
        g4_chat_item_clear(c, &c->media[i]);
        g4_chat_item_unload(c, &c->media[i]);
        g4_free(a, c->media[i].data);
    }
    g4_free(a, c->media);
    g4_prompt_tokens_free(&c->prompt);
    g4_rendered_free(&c->rendered);
    g4_arena_free(&c->arena);
    g4_free(a, c);
}

/* The template that is named, or the model's. */
static g4_status g4_chat_template(g4_template *out, const g4_engine *e, const char *name, g4_error *err)
{
    static const char *const names[] = { [G4_TEMPLATE_31B_2026_07] = "31b-2026-07",
                                         [G4_TEMPLATE_E2B_2026_07] = "e2b-2026-07",
                                         [G4_TEMPLATE_31B_2026_04] = "31b-2026-04" };
    *out = e != NULL ? (g4_template)g4_engine_config(e)->chat_template : G4_TEMPLATE_NONE;
    if (name != NULL) {
        for (int i = G4_TEMPLATE_31B_2026_07; i <= G4_TEMPLATE_31B_2026_04; i++) {
            if (strcmp(name, names[i]) != 0) continue;
            *out = (g4_template)i;
            return G4_OK;
        }
        return g4_fail(err, G4_ERR_ARGUMENT,
                       "no chat template named \"%.60s\": there are 31b-2026-07, e2b-2026-07 and 31b-2026-04", name);
    }
    if (*out >= G4_TEMPLATE_31B_2026_07 && *out <= G4_TEMPLATE_31B_2026_04) return G4_OK;
    return g4_fail(err, G4_ERR_UNSUPPORTED,
                   "this model has no chat template: it is not instruction tuned (a template can be named)");
}

static g4_status g4_chat_new(g4_chat **out, g4_engine *e, const g4_allocator *a, const g4_chat_options *opt,
                             g4_error *err)
{
    g4_template kind;
    *out = NULL;
    const g4_status st = g4_chat_template(&kind, e, opt->template_name, err);
    if (st != G4_OK) return st;
    g4_chat *c = g4_alloc(a, 1, sizeof *c);
    if (c == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for a conversation");
    c->a = c->prompt.a = a;
    c->e = e;
    c->arena.a = a;
    c->limits = opt->limits;
    c->in = (g4_render_input) { .thinking = opt->thinking, .preserve_thinking = opt->preserve_thinking, .kind = kind };
    *out = c;
    return G4_OK;
}

static g4_status g4_chat_read_tools(g4_chat *c, const g4_chat_options *opt, g4_halt *halt, g4_error *err)
{
    g4_json *tools;
    if (opt->tools == NULL)
        return opt->tools_len == 0 ? G4_OK : g4_fail(err, G4_ERR_ARGUMENT, "tools is NULL and tools_len is not 0");
    const g4_status st = g4_openai_read_tools(&tools, &c->arena, opt->tools, opt->tools_len, halt, err);
    c->in.tools = tools;
    return st;
}

/* The medium that a mark stands for. built: the media of messages, NULL for a parsed chat; its media are set later. */
static g4_chat_item g4_chat_item_of(const g4_chat *c, const g4_mark *m, const g4_part *const *built)
{
    static const g4_part_kind kinds[] = {
        [G4_MARK_IMAGE] = G4_PART_IMAGE, [G4_MARK_AUDIO] = G4_PART_AUDIO, [G4_MARK_VIDEO] = G4_PART_VIDEO
    };
    const int message = c->in.origins != NULL ? c->in.origins[m->message].message : m->message;
    g4_chat_item item = { .kind = kinds[m->kind], .message = message, .part = m->part };
    if (built != NULL) {
        const g4_part *p = built[(size_t)m->part->number - 1];
        item.image = p->image;
        item.audio = p->audio;
        item.video = p->video;
    }
    return item;
}

/* Render, and list the media in prompt order. */
static g4_status g4_chat_finish(g4_chat *c, const g4_part *const *built, g4_halt *halt, g4_error *err)
{
    const g4_status st = g4_render(&c->rendered, c->a, &c->in, halt, err);
    if (st != G4_OK) return st;
    const g4_rendered *r = &c->rendered;
    int n = 0;
    for (int i = 0; i < r->n_marks; i++) n += r->marks[i].kind != G4_MARK_CONTROL;
    c->media = g4_alloc(c->a, n > 0 ? (size_t)n : 1, sizeof *c->media);
    if (c->media == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for %d media parts", n);
    for (int i = 0; i < r->n_marks; i++)
        if (r->marks[i].kind != G4_MARK_CONTROL) c->media[c->n_media++] = g4_chat_item_of(c, &r->marks[i], built);
    return G4_OK;
}

static g4_status g4_chat_build(g4_chat *c, const g4_message *messages, int n, const g4_chat_options *opt, g4_halt *halt,
                               g4_error *err)
{
    g4_json *list;
    size_t n_parts = 1;
    for (int i = 0; i < n; i++) n_parts += messages[i].n_parts > 0 ? (size_t)messages[i].n_parts : 0;
    const g4_part **media = g4_alloc(c->a, n_parts, sizeof *media);
    if (media == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for %zu parts", n_parts);
    g4_status st = g4_messages_build(&list, media, &c->arena, messages, n, halt, err);
    c->in.messages = list;
    c->in.is_resolved = 1;
    if (st == G4_OK) st = g4_chat_read_tools(c, opt, halt, err);
    if (st == G4_OK) st = g4_chat_finish(c, media, halt, err);
    g4_free(c->a, media);
    return st;
}

g4_status g4_chat_open(g4_chat **out, g4_engine *e, const g4_message *messages, int n, const g4_chat_options *opt,
                       g4_error *err)
{
    static const g4_chat_options defaults = { 0 };
    g4_halt own, *halt = g4_engine_halt(e, &own);
    if (opt == NULL) opt = &defaults;
    g4_halt_add(halt, &opt->limits);
    if (out == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (n < 0) return g4_fail(err, G4_ERR_ARGUMENT, "%d messages", n);
    if (n > 0 && messages == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "messages is NULL");
    g4_chat *c;
    g4_status st = g4_halt_check(halt, err);
    if (st == G4_OK) st = g4_chat_new(&c, e, e != NULL ? g4_engine_allocator(e) : NULL, opt, err);
    if (st != G4_OK) return st;
    c->in.add_generation_prompt = !opt->no_generation_prompt;
    st = g4_chat_build(c, messages, n, opt, halt, err);
    if (st == G4_OK)
        *out = c;
    else
        g4_chat_close(c);
    return st;
}

/* ---- From JSON ----------------------------------------------------------------------------------- */

/* The messages of a document, and what it says beside them, which wins over the options. */
static g4_status g4_chat_read_document(g4_chat *c, const g4_json *doc, g4_error *err)
{
    const g4_json *v;
    if (doc->kind == G4_JSON_ARRAY) {
        c->in.messages = doc;
        return G4_OK;
    }
    if (doc->kind != G4_JSON_OBJECT)
        return g4_fail(err, G4_ERR_ARGUMENT, "a conversation must be a list of messages, or an object with messages");
    c->in.messages = g4_json_given(doc, "messages");
    if ((v = g4_json_given(doc, "tools")) != NULL) c->in.tools = v;
    if ((v = g4_json_given(doc, "enable_thinking")) != NULL) c->in.thinking = g4_py_truthy(v);
    if ((v = g4_json_given(doc, "preserve_thinking")) != NULL) c->in.preserve_thinking = g4_py_truthy(v);
    if ((v = g4_json_given(doc, "add_generation_prompt")) != NULL) c->in.add_generation_prompt = g4_py_truthy(v);
    return G4_OK;
}

/* The same of one in OpenAI's format, brought into the template's. */
static g4_status g4_chat_read_openai(g4_chat *c, g4_json *doc, g4_halt *halt, g4_error *err)
{
    g4_openai o = { .m = &c->arena, .asker = { .halt = halt }, .err = err };
    g4_json *tools = g4_json_find(doc, "tools");
    const int is_list = doc->kind == G4_JSON_ARRAY, has_tools = tools != NULL && tools->kind != G4_JSON_NULL;
    g4_status st = g4_chat_read_document(c, doc, err);
    c->in.is_resolved = 1;
    if (st == G4_OK && has_tools) st = g4_openai_tools(&o, tools);
    return st == G4_OK ? g4_openai_messages(&o, is_list ? doc : g4_json_find(doc, "messages")) : st;
}

static g4_status g4_chat_read(g4_chat **out, g4_engine *e, const g4_allocator *a, const char *json, size_t len,
                              const g4_chat_options *opt, g4_error *err)
{
    static const g4_chat_options defaults = { 0 };
    g4_halt own, *halt = g4_engine_halt(e, &own);
    if (opt == NULL) opt = &defaults;
    g4_halt_add(halt, &opt->limits);
    g4_chat *c;
    g4_json *doc;
    if (out == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (json == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "json is NULL");
    g4_status st = g4_halt_check(halt, err);
    if (st == G4_OK) st = g4_chat_new(&c, e, a, opt, err);
    if (st != G4_OK) return st;
    c->in.add_generation_prompt = opt->openai && !opt->no_generation_prompt;
    st = g4_json_parse_in(&doc, &c->arena, json, len, NULL, halt, err);
    if (st == G4_OK) st = g4_chat_read_tools(c, opt, halt, err);
    if (st == G4_OK) st = opt->openai ? g4_chat_read_openai(c, doc, halt, err) : g4_chat_read_document(c, doc, err);
    if (st == G4_OK) st = g4_chat_finish(c, NULL, halt, err);
    if (st == G4_OK)
        *out = c;
    else
        g4_chat_close(c);
    return st;
}

g4_status g4_chat_parse(g4_chat **out, g4_engine *e, const char *json, size_t len, const g4_chat_options *opt,
                        g4_error *err)
{
    return g4_chat_read(out, e, e != NULL ? g4_engine_allocator(e) : NULL, json, len, opt, err);
}

g4_status g4_chat_parse_with(g4_chat **out, const g4_allocator *a, const char *json, size_t len,
                             const g4_chat_options *opt, g4_error *err)
{
    return g4_chat_read(out, NULL, a, json, len, opt, err);
}

g4_status g4_request_chat(g4_chat **out, g4_engine *e, const g4_request *r, const g4_chat_options *opt, g4_fault *fault,
                          g4_error *err)
{
    static const g4_chat_options defaults = { 0 };
    g4_halt own, *halt = g4_engine_halt(e, &own);
    if (fault != NULL) *fault = (g4_fault) { 0 };
    if (opt == NULL) opt = &defaults;
    g4_halt_add(halt, &opt->limits);
    if (out == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    *out = NULL;
    if (r == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "request is NULL");
    g4_chat *c;
    g4_status st = g4_halt_check(halt, err);
    if (st == G4_OK) st = g4_chat_new(&c, e, e != NULL ? g4_engine_allocator(e) : NULL, opt, err);
    if (st != G4_OK) return st;
    c->in.add_generation_prompt = !opt->no_generation_prompt;
    st = g4_chat_read_tools(c, opt, halt, err);
    if (st == G4_OK) {
        g4_request_render(r, &c->in);
        st = g4_chat_finish(c, NULL, halt, err);
        if (st == G4_ERR_ARGUMENT && fault != NULL) memcpy(fault->param, "messages", sizeof "messages");
    }
    if (st == G4_OK)
        *out = c;
    else
        g4_chat_close(c);
    return st;
}

/* ---- What a chat says of itself ------------------------------------------------------------------ */

const char *g4_chat_text(const g4_chat *c, size_t *len)
{
    if (len != NULL) *len = c != NULL ? c->rendered.text.len : 0;
    return c != NULL ? c->rendered.text.data : NULL;
}

int g4_chat_thinking(const g4_chat *c) { return c != NULL && c->in.thinking; }
const g4_engine *g4_chat_engine(const g4_chat *c) { return c->e; }
const g4_json *g4_chat_tools(const g4_chat *c) { return c->in.tools; }

int g4_chat_in_thought(const g4_chat *c)
{
    static const char open[] = "<|channel>thought\n";
    if (c == NULL) return 0;
    const g4_rendered *r = &c->rendered;
    const g4_mark *last = r->n_marks > 0 ? &r->marks[r->n_marks - 1] : NULL;
    return last != NULL && r->text.len - last->offset == sizeof open - 1 &&
           memcmp(r->text.data + last->offset, open, sizeof open - 1) == 0;
}

/* ---- Media --------------------------------------------------------------------------------------- */

int g4_chat_n_media(const g4_chat *c) { return c != NULL ? c->n_media : 0; }

static int g4_chat_item_is_set(const g4_chat_item *item)
{
    return item->image != NULL || item->audio != NULL || item->video != NULL;
}

static g4_status g4_chat_get_item(g4_chat *c, int i, g4_chat_item **out, g4_error *err)
{
    if (c == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "chat is NULL");
    if (i < 0 || i >= c->n_media) return g4_fail(err, G4_ERR_ARGUMENT, "the chat has no medium %d", i);
    *out = &c->media[i];
    return G4_OK;
}

/* The bytes that its part holds, decoded once. */
static g4_status g4_chat_item_decode(g4_chat *c, g4_chat_item *item, const g4_medium_source *source, g4_error *err)
{
    g4_halt own, *halt = g4_engine_halt(c->e, &own);
    if (item->data != NULL) return G4_OK;
    g4_halt_add(halt, &c->limits);
    uint8_t *data = g4_alloc(c->a, g4_medium_source_room(source), 1);
    if (data == NULL)
        return g4_fail(err, G4_ERR_MEMORY, "messages[%d]: no memory for %zu bytes of data", item->message,
                       source->n_data);
    const g4_status st = g4_medium_source_decode(source, data, &item->size, item->message, halt, err);
    if (st == G4_OK)
        item->data = data;
    else
        g4_free(c->a, data);
    return st;
}

g4_status g4_chat_media(g4_chat *c, int i, g4_chat_medium *out, g4_error *err)
{
    g4_chat_item *item = NULL;
    g4_medium_source source;
    if (out == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "out is NULL");
    memset(out, 0, sizeof *out);
    g4_status st = g4_chat_get_item(c, i, &item, err);
    if (st != G4_OK) return st;
    out->kind = item->kind;
    out->message = item->message;
    out->image = item->image;
    out->audio = item->audio;
    out->video = item->video;
    out->is_set = g4_chat_item_is_set(item);
    st = g4_medium_source_find(&source, item->part, item->message, err);
    if (st == G4_OK && source.data != NULL) st = g4_chat_item_decode(c, item, &source, err);
    if (st != G4_OK) {
        memset(out, 0, sizeof *out);
        return st;
    }
    out->source = source.place;
    out->data = source.data != NULL ? item->data : NULL;
    out->size = source.data != NULL ? item->size : 0;
    return G4_OK;
}

/* The item to be set, which must be of that kind; what was made of an older picture or sound is forgotten. */
static g4_status g4_chat_reset_item(g4_chat *c, int i, g4_part_kind kind, const void *given, g4_chat_item **out,
                                    g4_error *err)
{
    static const char *const names[] = { "text", "a picture", "sound", "a video" };
    const g4_status st = g4_chat_get_item(c, i, out, err);
    if (st != G4_OK) return st;
    if (given == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "medium %d of the chat cannot be set to NULL", i);
    if (c->n_calls > 0) return g4_fail(err, G4_ERR_ARGUMENT, "this chat is in a call: the one whose callback this is");
    if ((*out)->kind != kind)
        return g4_fail(err, G4_ERR_ARGUMENT, "medium %d of the chat is %s, not %s", i, names[(*out)->kind],
                       names[kind]);
    g4_chat_item_clear(c, *out);
    g4_chat_item_unload(c, *out);
    return G4_OK;
}

g4_status g4_chat_set_image(g4_chat *c, int i, const g4_image *image, g4_error *err)
{
    g4_chat_item *item = NULL;
    const g4_status st = g4_chat_reset_item(c, i, G4_PART_IMAGE, image, &item, err);
    if (st == G4_OK) item->image = image;
    return st;
}

g4_status g4_chat_set_audio(g4_chat *c, int i, const g4_audio *audio, g4_error *err)
{
    g4_chat_item *item = NULL;
    const g4_status st = g4_chat_reset_item(c, i, G4_PART_AUDIO, audio, &item, err);
    if (st == G4_OK) item->audio = audio;
    return st;
}

g4_status g4_chat_set_video(g4_chat *c, int i, const g4_video *video, g4_error *err)
{
    g4_chat_item *item = NULL;
    const g4_status st = g4_chat_reset_item(c, i, G4_PART_VIDEO, video, &item, err);
    if (st == G4_OK) item->video = video;
    return st;
}

/* ---- Media that the chat loads itself ------------------------------------------------------------ */

/* The path of the file that a medium comes from, as the options allow. */
static g4_status g4_chat_media_path(const g4_chat_medium *m, const g4_chat_load_options *opt, char *path, size_t size,
                                    g4_error *err)
{
    if (m->source == NULL)
        return g4_fail(err, G4_ERR_ARGUMENT, "a medium that names neither a file nor data was not set");
    path[0] = path[size - 1] = '\0';
    if (opt->path == NULL && opt->root != NULL) return g4_media_below(opt->root, m->source, path, size, err);
    if (opt->path == NULL)
        return g4_fail(err, G4_ERR_ARGUMENT, "\"%.80s\" is not opened: media must be data: URLs here", m->source);
    const g4_status st = opt->path(opt->user, m, path, size, err);
    if (st == G4_OK && memchr(path, '\0', size) == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "a path without an end");
    return st;
}

/* Every frame tells its budget of soft tokens. */
static g4_status g4_chat_take_frames(const g4_chat *c, g4_loaded *l, int max_tokens, g4_error *err)
{
    const int n = l->read.n_frames;
    l->video = l->read;
    l->frames = g4_alloc(c->a, n > 0 ? (size_t)n : 1, sizeof *l->frames);
    if (l->frames == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for the frames of a video");
    for (int i = 0; i < n; i++) {
        l->frames[i] = l->read.frames[i];
        l->frames[i].max_tokens = max_tokens;
    }
    l->video.frames = l->frames;
    return G4_OK;
}

/* What a stranger's document shows is itself, and does not name what to show. */
static g4_status g4_chat_check_medium(const g4_chat_medium *m, const char *path, g4_error *err)
{
    uint8_t head[G4_MEDIUM_HEAD];
    const uint8_t *data = m->data;
    size_t n = m->size;
    if (data == NULL) {
        n = g4_medium_read_head(head, path);
        data = head;
    }
    if (!g4_medium_is_text(data, n)) return G4_OK;
    return g4_fail(err, G4_ERR_FORMAT, "it is text, and no picture, sound or video");
}

static g4_status g4_chat_load_one(const g4_chat *c, g4_loaded *l, const g4_chat_medium *m,
                                  const g4_chat_load_options *opt, g4_error *err)
{
    char path[4096] = "";
    g4_media_options how = opt->media != NULL ? *opt->media : (g4_media_options) { .want_sound = 1 };
    how.allocator = c->a;
    if (c->e != NULL && g4_engine_config(c->e)->a_layers == 0) how.want_sound = 0;
    g4_status st = m->data == NULL ? g4_chat_media_path(m, opt, path, sizeof path, err) : G4_OK;
    if (st == G4_OK) st = g4_chat_check_medium(m, path, err);
    if (st != G4_OK) return st;
    how.frame_tokens = opt->frame_tokens != 0 ? opt->frame_tokens : G4_FRAME_TOKENS;
    if (c->e != NULL) how.frame_side = (int)(g4_engine_config(c->e)->v_patch * g4_engine_config(c->e)->v_pool);
    if (m->kind == G4_PART_IMAGE)
        st = m->data != NULL ? g4_image_decode(&l->image, m->data, m->size, &how, err)
                             : g4_image_load(&l->image, path, &how, err);
    else if (m->kind == G4_PART_AUDIO)
        st = m->data != NULL ? g4_audio_decode(&l->audio, m->data, m->size, &how, err)
                             : g4_audio_load(&l->audio, path, &how, err);
    else
        st = m->data != NULL ? g4_video_decode(&l->read, m->data, m->size, &how, err)
                             : g4_video_load(&l->read, path, &how, err);
    l->image.max_tokens = opt->image_tokens;
    return st == G4_OK && m->kind == G4_PART_VIDEO ? g4_chat_take_frames(c, l, opt->frame_tokens, err) : st;
}

/* Load an item that is not set. What it was decoded from is not needed any more. */
static g4_status g4_chat_load_item(g4_chat *c, int i, const g4_chat_load_options *opt, g4_error *err)
{
    g4_chat_item *item = &c->media[i];
    g4_chat_medium m;
    g4_error why = { 0 };
    g4_status st = g4_chat_media(c, i, &m, err);
    if (st != G4_OK) return st;
    g4_loaded *l = item->loaded = g4_alloc(c->a, 1, sizeof *l);
    if (l == NULL) return g4_fail(err, G4_ERR_MEMORY, "messages[%d]: no memory for a medium", m.message);
    st = g4_chat_load_one(c, l, &m, opt, &why);
    g4_free(c->a, item->data);
    item->data = NULL;
    if (st != G4_OK) {
        g4_chat_item_unload(c, item);
        return g4_fail(err, st, "messages[%d]: %s", m.message, why.message);
    }
    item->image = item->kind == G4_PART_IMAGE ? &l->image : NULL;
    item->audio = item->kind == G4_PART_AUDIO ? &l->audio : NULL;
    item->video = item->kind == G4_PART_VIDEO ? &l->video : NULL;
    return G4_OK;
}

g4_status g4_chat_load_media(g4_chat *c, const g4_chat_load_options *opt, g4_error *err)
{
    static const g4_chat_load_options defaults = { 0 };
    g4_status st = G4_OK;
    if (c == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "chat is NULL");
    if (c->n_calls > 0) return g4_fail(err, G4_ERR_ARGUMENT, "this chat is in a call: the one whose callback this is");
    if (opt == NULL) opt = &defaults;
    unsigned char *is_new = g4_alloc(c->a, (size_t)c->n_media + 1, 1);
    if (is_new == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for %d media parts", c->n_media);
    c->n_calls++;
    for (int i = 0; i < c->n_media && st == G4_OK; i++) {
        if (g4_chat_item_is_set(&c->media[i])) continue;
        st = g4_chat_load_item(c, i, opt, err);
        is_new[i] = st == G4_OK;
    }
    for (int i = 0; i < c->n_media && st != G4_OK; i++)
        if (is_new[i]) g4_chat_item_unload(c, &c->media[i]);
    c->n_calls--;
    g4_free(c->a, is_new);
    return st;
}

/* ---- Soft tokens ---------------------------------------------------------------------------------- */

/* Room for one more g4_soft; NULL: no memory. The caller counts it when it has filled it. */
static g4_soft **g4_chat_item_grow(const g4_chat *c, g4_chat_item *item)
{
    g4_soft **soft = g4_array_grow(c->a, item->soft, item->n_soft, &item->cap_soft, sizeof *soft);
    if (soft == NULL) return NULL;
    item->soft = soft;
    return &soft[item->n_soft];
}

/* Blocks of a sound of any length. */
static g4_status g4_chat_encode_sound(g4_chat *c, g4_chat_item *item, const g4_audio *sound, g4_halt *halt,
                                      g4_error *err)
{
    for (size_t from = 0, n; (n = g4_audio_block(sound, from)) > 0; from += n) {
        const g4_audio block = { .samples = sound->samples + from, .n_samples = n };
        g4_soft **soft = g4_chat_item_grow(c, item);
        if (soft == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for a block of sound");
        const g4_status st = g4_encode_sound(soft, c->e, &block, halt, err);
        if (st != G4_OK) return st;
        item->n_soft++;
        if (from + n < sound->n_samples)
            g4_engine_log(c->e, G4_LOG_INFO,
                          "%.1f s of sound are more than the 30 s of a block: cut at %.2f s, where it is quiet",
                          (double)sound->n_samples / G4_AUDIO_RATE, (double)(from + n) / G4_AUDIO_RATE);
    }
    return G4_OK;
}

static g4_status g4_chat_encode_image(g4_chat *c, g4_chat_item *item, g4_halt *halt, g4_error *err)
{
    g4_soft **soft = g4_chat_item_grow(c, item);
    if (soft == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for a picture");
    const g4_status st = g4_encode_picture(soft, c->e, item->image, 0, halt, err);
    item->n_soft += st == G4_OK;
    return st;
}

static g4_status g4_chat_encode_video(g4_chat *c, g4_chat_item *item, g4_halt *halt, g4_error *err)
{
    const g4_video *v = item->video;
    if (v->n_frames < 0 || (v->n_frames > 0 && (v->frames == NULL || v->seconds == NULL)))
        return g4_fail(err, G4_ERR_ARGUMENT, "messages[%d]: a video of %d frames%s", item->message, v->n_frames,
                       v->n_frames < 0 ? "" : " that are NULL");
    if (v->n_frames == 0 && v->sound == NULL)
        return g4_fail(err, G4_ERR_ARGUMENT, "messages[%d]: the video is empty", item->message);
    for (int i = 0; i < item->video->n_frames; i++) {
        g4_soft **soft = g4_chat_item_grow(c, item);
        if (soft == NULL) return g4_fail(err, G4_ERR_MEMORY, "no memory for the frames of a video");
        const g4_status st = g4_encode_picture(soft, c->e, &item->video->frames[i], 1, halt, err);
        if (st != G4_OK) return st;
        item->n_soft++;
    }
    item->n_frames = item->n_soft;
    return item->video->sound != NULL ? g4_chat_encode_sound(c, item, item->video->sound, halt, err) : G4_OK;
}

/* Soft tokens of an item, all of them or none, unless they are there already. */
static g4_status g4_chat_encode(g4_chat *c, g4_chat_item *item, g4_halt *halt, g4_error *err)
{
    g4_status st = g4_halt_check(halt, err);
    if (st != G4_OK || item->n_soft > 0) return st;
    if (item->kind == G4_PART_AUDIO && item->audio != NULL && item->audio->n_samples == 0)
        st = g4_fail(err, G4_ERR_ARGUMENT, "messages[%d]: the sound is empty", item->message);
    else if (item->kind == G4_PART_AUDIO && item->audio != NULL)
        st = g4_chat_encode_sound(c, item, item->audio, halt, err);
    else if (item->kind == G4_PART_IMAGE && item->image != NULL)
        st = g4_chat_encode_image(c, item, halt, err);
    else if (item->kind == G4_PART_VIDEO && item->video != NULL)
        st = g4_chat_encode_video(c, item, halt, err);
    else
        return g4_fail(err, G4_ERR_ARGUMENT, "messages[%d]: its picture, sound or video was not loaded", item->message);
    if (st != G4_OK) g4_chat_item_clear(c, item);
    return st;
}

static g4_status g4_chat_encode_media(g4_chat *c, g4_halt *halt, g4_error *err)
{
    g4_status st = G4_OK;
    if (c->is_encoding)
        return g4_fail(err, G4_ERR_ARGUMENT, "this chat's media are being encoded by the call whose callback this is");
    c->is_encoding = 1;
    for (int i = 0; i < c->n_media && st == G4_OK; i++) st = g4_chat_encode(c, &c->media[i], halt, err);
    c->is_encoding = 0;
    return st;
}

/* ---- Prompt tokens -------------------------------------------------------------------------------
 *
 * Between two control tokens stands a stretch of plain text, tokenised as one piece. A stretch whose bytes are those of
 * the tokens that the session already holds there keeps these: what the model wrote may not be how the tokenizer would
 * split it. Media placeholders become their soft tokens between begin and end markers; the time stamps of video frames
 * belong to the text around them. */

typedef struct {
    g4_prompt_tokens made;
    const g4_tokenizer *t;
    g4_buf plain;        /* the stretch so far */
    const g4_token *old; /* the session's timeline */
    int n_old;
    int same;       /* everything so far equals the timeline */
    int in_call;    /* 1: behind <|tool_call>; 2: in a text there */
    int after_turn; /* the last control token was <|turn> */
    g4_halt *halt;
    g4_status st;
    g4_error *err;
} g4_prompter;

static void g4_prompter_no_memory(g4_prompter *p)
{
    if (p->st == G4_OK) p->st = g4_fail(p->err, G4_ERR_MEMORY, "no memory for the tokens of a prompt");
}

static void g4_prompter_id(g4_prompter *p, g4_token id)
{
    g4_tokens *ids = &p->made.ids;
    if (p->st != G4_OK) return;
    if (ids->n == ids->cap) {
        const size_t cap = ids->cap == 0 ? 256 : ids->cap * 2;
        g4_token *grown = ids->n < INT32_MAX / 2 ? g4_realloc(p->made.a, ids->ids, cap, sizeof *grown) : NULL;
        if (grown == NULL) {
            g4_prompter_no_memory(p);
            return;
        }
        ids->ids = grown;
        ids->cap = cap;
    }
    p->same = p->same && ids->n < (size_t)p->n_old && p->old[ids->n] == id;
    ids->ids[ids->n++] = id;
}

/* The number of the timeline's tokens that spell exactly these bytes from here on, or -1. */
static int g4_prompter_spelled(const g4_prompter *p, const char *s, size_t n)
{
    const int from = (int)p->made.ids.n;
    int pos = from;
    size_t done = 0;
    if (!p->same) return -1;
    while (done < n) {
        char piece[256];
        int special;
        if (pos >= p->n_old || (uint32_t)p->old[pos] >= p->t->n_vocab) return -1;
        const size_t len = g4_tokenizer_piece(p->t, p->old[pos], piece, &special);
        if (special || len == 0 || len > n - done || memcmp(piece, s + done, len) != 0) return -1;
        done += len;
        pos++;
    }
    return pos - from;
}

/* The bytes of a number that stands at the start of s as a value, not as the name of a member; 0: none does. */
static size_t g4_number_value(const char *s, size_t n, double *out)
{
    g4_arena m = { 0 };
    g4_json *v;
    size_t len = 0;
    while (len < n && s[len] != '\0' && strchr("+-.0123456789eE", s[len]) != NULL) len++;
    if (len == 0 || (len < n && s[len] == ':') || g4_json_parse_in(&v, &m, s, len, NULL, NULL, NULL) != G4_OK) len = 0;
    if (len > 0) *out = v->number;
    g4_arena_free(&m);
    return len;
}

/* Are two stretches of a call outside its texts the same value? Numbers count as what they are, however they are
 * written: a client that reads the arguments and writes them again has another spelling. */
static int g4_same_in_call(const char *x, size_t n_x, const char *y, size_t n_y)
{
    size_t i = 0, k = 0;
    while (i < n_x && k < n_y) {
        double a, b;
        const int begins = i > 0 && strchr(":,[", x[i - 1]) != NULL;
        const size_t len_x = begins ? g4_number_value(x + i, n_x - i, &a) : 0;
        const size_t len_y = len_x > 0 ? g4_number_value(y + k, n_y - k, &b) : 0;
        if (len_y > 0 && a == b) {
            i += len_x;
            k += len_y;
        } else if (x[i++] != y[k++]) {
            return 0;
        }
    }
    return i == n_x && k == n_y;
}

/* The number of the timeline's tokens up to the next marker that say in a call what these bytes say, or -1. */
static int g4_prompter_said(const g4_prompter *p, const char *s, size_t n)
{
    const int from = (int)p->made.ids.n;
    g4_buf held = { .a = p->made.a };
    int pos = from, special = 0, same = 0;
    if (!p->same || p->in_call != 1) return -1;
    for (; pos < p->n_old && (uint32_t)p->old[pos] < p->t->n_vocab; pos++) {
        char piece[256];
        const size_t len = g4_tokenizer_piece(p->t, p->old[pos], piece, &special);
        if (special || held.len > 2 * n + 64) break;
        g4_buf_add(&held, piece, len);
    }
    if (special && !held.failed && held.len > 0) same = g4_same_in_call(s, n, held.data, held.len);
    g4_buf_free(&held);
    return same ? pos - from : -1;
}

/* A header is the line behind <|turn> that begins the model's turn: it is marked behind its last token, if its tokens
 * end where it does. start: the first token of the stretch that begins with it. */
static void g4_prompter_header(g4_prompter *p, size_t start)
{
    static const char line[] = "model\n";
    g4_prompt_tokens *made = &p->made;
    size_t spelled = 0, pos = start;
    if (!p->after_turn || p->plain.len < sizeof line - 1 || memcmp(p->plain.data, line, sizeof line - 1) != 0) return;
    for (; pos < made->ids.n && spelled < sizeof line - 1; pos++) {
        char piece[256];
        int special;
        spelled += g4_tokenizer_piece(p->t, made->ids.ids[pos], piece, &special);
    }
    if (spelled != sizeof line - 1) return;
    int *headers = g4_array_grow(made->a, made->headers, made->n_headers, &made->cap_headers, sizeof *headers);
    if (headers == NULL) {
        g4_prompter_no_memory(p);
        return;
    }
    made->headers = headers;
    headers[made->n_headers++] = (int)pos;
}

/* The stretch of plain text is at its end. */
static void g4_prompter_flush(g4_prompter *p)
{
    g4_tokens *ids = &p->made.ids;
    const size_t start = ids->n;
    if (p->plain.failed) g4_prompter_no_memory(p);
    if (p->st == G4_OK) p->st = g4_halt_check(p->halt, p->err);
    if (p->st != G4_OK || p->plain.len == 0) return;
    int kept = g4_prompter_spelled(p, p->plain.data, p->plain.len);
    if (kept < 0) kept = g4_prompter_said(p, p->plain.data, p->plain.len);
    for (int i = 0; i < kept; i++) g4_prompter_id(p, p->old[ids->n]);
    if (kept < 0) {
        p->st = g4_tokenizer_encode(p->t, p->made.a, p->plain.data, p->plain.len, 0, ids, p->halt, p->err);
        if (ids->n > INT32_MAX / 2) g4_prompter_no_memory(p);
        for (size_t i = start; i < ids->n && p->same; i++) p->same = i < (size_t)p->n_old && p->old[i] == ids->ids[i];
    }
    if (p->st == G4_OK) g4_prompter_header(p, start);
    p->plain.len = 0;
}

static void g4_prompter_control(g4_prompter *p, const char *name, size_t len)
{
    g4_prompter_flush(p);
    const g4_token id = g4_tokenizer_special(p->t, name, len);
    if (id < 0 && p->st == G4_OK)
        p->st = g4_fail(p->err, G4_ERR_UNSUPPORTED, "the model's vocabulary has no token %.*s", (int)len, name);
    p->after_turn = len == 7 && memcmp(name, "<|turn>", 7) == 0;
    if (len == 12 && memcmp(name, "<|tool_call>", 12) == 0)
        p->in_call = 1;
    else if (p->in_call && len == 5 && memcmp(name, "<|\"|>", 5) == 0)
        p->in_call = p->in_call == 1 ? 2 : 1;
    else
        p->in_call = 0;
    g4_prompter_id(p, id);
}

static void g4_prompter_soft(g4_prompter *p, g4_soft *soft, const char *begin, const char *end)
{
    g4_prompt_tokens *made = &p->made;
    g4_prompter_control(p, begin, strlen(begin));
    g4_medium *placed = g4_array_grow(made->a, made->placed, made->n_placed, &made->cap_placed, sizeof *placed);
    if (placed == NULL) {
        g4_prompter_no_memory(p);
        return;
    }
    made->placed = placed;
    placed[made->n_placed++] = (g4_medium) { (int)made->ids.n, soft };
    for (int i = 0; i < g4_soft_n(soft); i++) g4_prompter_id(p, g4_soft_token(soft));
    g4_prompter_control(p, end, strlen(end));
}

static void g4_prompter_medium(g4_prompter *p, const g4_chat_item *item)
{
    for (int i = 0; i < item->n_soft && p->st == G4_OK; i++) {
        const int is_frame = i < item->n_frames;
        if (is_frame) { /* its time in minutes and seconds */
            const double time = item->video->seconds[i];
            const long long seconds = time > 0 && time < 1e15 ? (long long)time : 0;
            g4_buf_fmt(&p->plain, "%s%02lld:%02lld ", i > 0 ? " " : "", seconds / 60, seconds % 60);
        }
        if (is_frame || item->kind == G4_PART_IMAGE)
            g4_prompter_soft(p, item->soft[i], "<|image>", "<image|>");
        else
            g4_prompter_soft(p, item->soft[i], "<|audio>", "<audio|>");
    }
}

/* More of the stretch, which may be as long as a file. */
static void g4_prompter_text(g4_prompter *p, const char *text, size_t n)
{
    if (p->st != G4_OK || n == 0 || !g4_buf_reserve(&p->plain, n)) return;
    if (!g4_copy(p->plain.data + p->plain.len, text, n, p->halt)) {
        p->st = g4_halt_check(p->halt, p->err);
        return;
    }
    p->plain.len += n;
    p->plain.data[p->plain.len] = '\0';
}

/* The chat's tokens into out: all, whose media are encoded, or those before the first medium. Where the bytes agree,
 * the spelling of the timeline `old` is kept. *same, if not NULL, says whether they are its first tokens. Free `out` in
 * any case. */
static g4_status g4_chat_tokenise(g4_prompt_tokens *out, const g4_chat *c, int to_medium, const g4_token *old,
                                  int n_old, int *same, g4_halt *halt, g4_error *err)
{
    g4_prompter p = { .made = { .a = c->a },
                      .t = g4_engine_tokenizer(c->e),
                      .plain = { .a = c->a },
                      .old = old,
                      .n_old = n_old,
                      .same = 1,
                      .halt = halt,
                      .err = err };
    const g4_buf *text = &c->rendered.text;
    const g4_mark *marks = c->rendered.marks;
    size_t done = 0, end = text->len;
    int medium = 0, n = 0;
    while (n < c->rendered.n_marks && (!to_medium || marks[n].kind == G4_MARK_CONTROL)) n++;
    for (int i = 0; i < n && p.st == G4_OK; i++) {
        const g4_mark *m = &marks[i];
        g4_prompter_text(&p, text->data + done, m->offset - done);
        if (m->kind == G4_MARK_CONTROL)
            g4_prompter_control(&p, text->data + m->offset, m->len);
        else
            g4_prompter_medium(&p, &c->media[medium++]);
        done = m->offset + m->len;
    }
    /* What stands before a video becomes one text with the time of its first frame. */
    if (n < c->rendered.n_marks) end = marks[n].kind == G4_MARK_VIDEO ? done : marks[n].offset;
    g4_prompter_text(&p, text->data + done, end - done);
    g4_prompter_flush(&p);
    g4_buf_free(&p.plain);
    *out = p.made;
    if (same != NULL) *same = p.same;
    return p.st;
}

/* The first n tokens, as a prompt. */
static g4_prompt g4_prompt_of(const g4_prompt_tokens *p, int n)
{
    int n_media = 0;
    while (n_media < p->n_placed && p->placed[n_media].pos < n) n_media++;
    return (g4_prompt) { .tokens = p->ids.ids, .n = n, .media = p->placed, .n_media = n_media };
}

/* Tokens of the chat, which keeps them: see g4_chat_tokenise. */
static g4_status g4_chat_give(g4_chat *c, int to_medium, g4_prompt *out, g4_error *err)
{
    g4_halt own, *halt = g4_engine_halt(c != NULL ? c->e : NULL, &own);
    g4_prompt_tokens made = { 0 };
    if (c == NULL || out == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "%s is NULL", c == NULL ? "chat" : "out");
    memset(out, 0, sizeof *out);
    if (c->e == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "a chat without an engine has no tokens");
    g4_halt_add(halt, &c->limits);
    c->n_calls++;
    g4_status st = to_medium ? G4_OK : g4_chat_encode_media(c, halt, err);
    if (st == G4_OK) st = g4_chat_tokenise(&made, c, to_medium, NULL, 0, NULL, halt, err);
    c->n_calls--;
    if (st != G4_OK) {
        g4_prompt_tokens_free(&made);
        return st;
    }
    g4_prompt_tokens_free(&c->prompt);
    c->prompt = made;
    *out = g4_prompt_of(&made, (int)made.ids.n);
    return G4_OK;
}

g4_status g4_chat_prompt(g4_chat *c, g4_prompt *out, g4_error *err) { return g4_chat_give(c, 0, out, err); }
g4_status g4_chat_beginning(g4_chat *c, g4_prompt *out, g4_error *err) { return g4_chat_give(c, 1, out, err); }

/* ---- The session that follows a conversation ----------------------------------------------------- */

/* Make the timeline the chat's tokens, of which the first `common` are there: up to the first header that is new, then
 * from header to header, with a mark at each, which are places to come back to. Cancelled, it keeps what it reached. */
static g4_status g4_chat_follow(g4_session *s, const g4_prompt_tokens *p, int common, int *reused, g4_error *err)
{
    int next = 0, later;
    while (next < p->n_headers && p->headers[next] <= common) next++;
    for (int is_first = 1;; is_first = 0) {
        const int to = next < p->n_headers ? p->headers[next] : (int)p->ids.n;
        const g4_prompt part = g4_prompt_of(p, to);
        g4_status st = g4_timeline_follow(s, &part, is_first ? reused : &later, err);
        if (st == G4_OK && next < p->n_headers) st = g4_timeline_mark(s, err);
        if (st != G4_OK || next++ >= p->n_headers) return st;
    }
}

/* The same with what the timeline was kept until it is done. */
static g4_status g4_chat_sync(g4_session *s, const g4_prompt_tokens *p, g4_sync_counts *counts, g4_error *err)
{
    const int n = (int)p->ids.n;
    const g4_prompt whole = g4_prompt_of(p, n);
    const int common = g4_timeline_common(s, &whole);
    const uint64_t before = s->n_evaluated;
    g4_checkpoint old;
    if (n > s->n_ctx)
        return g4_fail(err, G4_ERR_CONTEXT, "the conversation has %d tokens, the context %d", n, s->n_ctx);
    g4_status st = g4_checkpoint_take(&old, s, common, err);
    if (st != G4_OK) return st;
    st = g4_chat_follow(s, p, common, &counts->reused, err);
    g4_checkpoint_end(&old, s, st);
    counts->prompt = n;
    counts->evaluated = (int)(s->n_evaluated - before);
    return st;
}

/* Can this chat and this session go together? */
static g4_status g4_chat_check(const g4_chat *c, const g4_session *s, g4_error *err)
{
    if (c == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "chat is NULL");
    if (c->e == NULL) return g4_fail(err, G4_ERR_ARGUMENT, "a chat without an engine has no tokens");
    if (c->e != s->e) return g4_fail(err, G4_ERR_ARGUMENT, "the chat was opened for another engine than the session");
    return G4_OK;
}

/* The tokens that a session's timeline becomes to hold the chat, whose media are encoded. Free `made` in any case. */
static g4_status g4_chat_tokens_for(g4_prompt_tokens *made, g4_chat *c, const g4_session *s, g4_halt *halt,
                                    g4_error *err)
{
    g4_status st = g4_chat_check(c, s, err);
    if (st != G4_OK) return st;
    c->n_calls++;
    st = g4_chat_encode_media(c, halt, err);
    if (st == G4_OK) st = g4_chat_tokenise(made, c, 0, s->tokens, s->n, NULL, halt, err);
    c->n_calls--;
    return st;
}

g4_status g4_session_sync_chat(g4_session *s, g4_chat *c, g4_sync_counts *counts, g4_error *err)
{
    g4_call call;
    g4_sync_counts unread;
    g4_prompt_tokens made = { 0 };
    if (counts == NULL) counts = &unread;
    *counts = (g4_sync_counts) { 0 };
    g4_status st = g4_call_begin(&call, s, NULL, err);
    if (st == G4_OK) st = g4_chat_tokens_for(&made, c, s, &call.halt, err);
    if (st == G4_OK) {
        c->n_calls++; /* its media must stay */
        st = g4_chat_sync(s, &made, counts, err);
        c->n_calls--;
    }
    g4_prompt_tokens_free(&made);
    return g4_call_end(&call, st);
}

g4_status g4_chat_add_to_batch(g4_chat *c, g4_batch *b, g4_session *s, const g4_batch_request *r,
                               g4_batch_finish_fn finish, g4_error *err)
{
    g4_call call;
    g4_prompt_tokens made = { 0 };
    g4_batch_rest rest;
    g4_status st = g4_call_begin(&call, s, r->generate != NULL ? &r->generate->limits : NULL, err);
    if (st == G4_OK) g4_batch_rest_open(&rest, b, s->e, &call.halt);
    if (st == G4_OK) st = g4_chat_tokens_for(&made, c, s, &call.halt, err);
    g4_call_end(&call, st);
    const g4_prompt whole = g4_prompt_of(&made, (int)made.ids.n);
    g4_batch_request request = *r;
    request.prompt = &whole;
    if (st == G4_OK && whole.n > s->n_ctx)
        st = g4_fail(err, G4_ERR_CONTEXT, "the conversation has %d tokens, the context %d", whole.n, s->n_ctx);
    const g4_batch_more more = { made.headers, made.n_headers, finish };
    if (st == G4_OK) st = g4_batch_add_more(b, s, &request, &more, err);
    g4_prompt_tokens_free(&made);
    return st;
}

g4_status g4_chat_check_followed(const g4_chat *c, const g4_session *s, int *n, g4_halt *halt, g4_error *err)
{
    g4_prompt_tokens made = { 0 };
    int same = s->n > 0;
    g4_status st = g4_chat_check(c, s, err);
    if (st != G4_OK) return st;
    for (int i = 0; i < c->n_media; i++) same = same && c->media[i].n_soft > 0;
    if (same) st = g4_chat_tokenise(&made, c, 0, s->tokens, s->n, &same, halt, err);
    const g4_prompt whole = g4_prompt_of(&made, (int)made.ids.n);
    if (st == G4_OK && same) same = g4_timeline_common(s, &whole) == whole.n;
    if (st == G4_OK && !same)
        st = g4_fail(err, G4_ERR_ARGUMENT,
                     "the session does not hold this conversation: call g4_session_sync_chat before it is answered");
    *n = whole.n;
    g4_prompt_tokens_free(&made);
    return st;
}
