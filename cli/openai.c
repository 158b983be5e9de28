/* openai.c - the document of --messages: a request in OpenAI's format, or its messages alone. What it says of the
 * answer becomes what guides it; how to sample, the command line may say instead. Its media are read from data, or from
 * files below one folder: the document may be a stranger's. */
#include "cli.h"

#include <string.h>

/* ---- What it says ------------------------------------------------------------------------------------ */

void request_options(arguments *a, const g4_request_info *info)
{
    if (a->max_tokens < 0 && info->max_tokens > 0) a->max_tokens = info->max_tokens;
    if (a->logprobs < 0 && info->want_logprobs) a->logprobs = info->n_top;
    if (a->n_stop > 0) return;
    for (int i = 0; i < info->n_stop && i < MAX_LIST; i++) a->stop[a->n_stop++] = info->stop[i];
}

int document_read(conversation *c)
{
    arguments *a = c->args;
    const g4_limits limits = until_interrupted();
    buffer text = { 0 };
    g4_error err;
    int status = source_read(a->messages, &text);
    if (status == DONE && g4_request_read_until(&c->request, G4_DIALECT_OPENAI, buffer_text(&text), text.len, &limits,
                                                NULL, NULL, &err) != G4_OK) {
        status = report_of(a->messages, &err);
    }
    buffer_free(&text);
    if (status != DONE) return status;
    const g4_request_info *info = g4_request_get(c->request);
    if (info->is_completion) return say(FAILED, "%s: expected a conversation, found a text to continue", a->messages);
    if (info->tools != NULL && a->tools != NULL) {
        return say(FAILED, "%s declares tools itself: leave --tools out", a->messages);
    }
    request_options(a, info);
    return DONE;
}

/* Where only some of the tools may be called, their calls alone are what the grammar allows. */
static int guide_tools(conversation *c, const g4_request_info *info)
{
    g4_error err;
    if (c->args->tool_choice == NULL) {
        c->guide.tool_choice = info->tool_choice;
        c->guide.tool_name = info->tool_name;
    }
    if (info->callable_len == info->tools_len || c->guide.tool_choice == G4_TOOLS_NONE) return DONE;
    if (g4_grammar_from_tools(&c->guide.tools, c->engine, info->callable, info->callable_len, NULL, &c->schema, &err) ==
        G4_OK) {
        return DONE;
    }
    return report_of(c->args->messages, &err);
}

int document_guide(conversation *c)
{
    const g4_request_info *info = g4_request_get(c->request);
    g4_error err;
    if (c->args->think == 0) c->guide.think_budget = info->think_budget;
    int status = guide_tools(c, info);
    if (status != DONE || info->schema == NULL || c->guide.grammar != NULL) return status;
    g4_schema_options options = c->schema;
    options.closed |= info->is_strict;
    if (g4_grammar_from_schema(&c->guide.grammar, c->engine, info->schema, info->schema_len, &options, &err) == G4_OK)
        return DONE;
    if (err.code == G4_ERR_CANCELED) return report(&err);
    return say(FAILED, "%s: response_format: %s", c->args->messages, err.message);
}

/* ---- The conversation -------------------------------------------------------------------------------- */

/* The folder below which the files that a document names may stand: that of --media-root, or its own. NULL: there is
 * none. */
static const char *media_folder(const arguments *a, const char *document, buffer *own)
{
    const char *slash = strrchr(document, '/');
    if (a->media_root != NULL) return a->media_root;
    if (strcmp(document, "-") == 0) return NULL;
    if (slash == NULL) return ".";
    buffer_add(own, document, slash == document ? 1 : (size_t)(slash - document));
    return own->failed ? NULL : own->data;
}

g4_status document_media(const arguments *a, const char *document, int want_sound, const g4_limits *limits,
                         g4_chat *chat, g4_error *err)
{
    buffer own = { 0 };
    g4_media_options how = media_options(a, want_sound);
    how.limits = *limits;
    g4_chat_load_options opt = { .root = media_folder(a, document, &own),
                                 .media = &how,
                                 .image_tokens = a->image_tokens,
                                 .frame_tokens = a->frame_tokens };
    const g4_status status = g4_chat_load_media(chat, &opt, err);
    buffer_free(&own);
    return status;
}

static int load_media(const conversation *c, g4_chat *chat)
{
    const char *name = c->args->messages;
    g4_error err;
    const g4_limits limits = until_interrupted();
    if (document_media(c->args, name, c->info.has_audio, &limits, chat, &err) == G4_OK) return DONE;
    if (err.code == G4_ERR_CANCELED) return report(&err);
    int is_elsewhere = strstr(err.message, "no such file below") != NULL || strstr(err.message, "not opened") != NULL;
    return say(FAILED, "%s: %s%s", name, err.message,
               is_elsewhere ? "; --media-root DIR allows the files below DIR" : "");
}

int document_chat(const conversation *c, const g4_chat_options *opt, g4_chat **chat)
{
    g4_error err;
    if (g4_request_chat(chat, c->engine, c->request, opt, NULL, &err) != G4_OK) {
        return report_of(c->args->messages, &err);
    }
    return load_media(c, *chat);
}
