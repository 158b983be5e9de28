/* requests.h - what must hold of a request that a stranger has sent, and of its refusal; shared by the fuzzers of
 * requests in each dialect. */
#ifndef G4_FUZZ_REQUESTS_H
#define G4_FUZZ_REQUESTS_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "chat/chat.h"

static inline void g4_fuzz_must(int is_so)
{
    if (!is_so) __builtin_trap();
}

static inline void g4_fuzz_json(const char *text, size_t len)
{
    g4_json *v = NULL;
    if (text == NULL) return;
    g4_fuzz_must(strlen(text) == len && g4_json_parse(&v, NULL, text, len, NULL) == G4_OK);
    g4_json_free(NULL, v);
}

static inline void g4_fuzz_info(const g4_request_info *i)
{
    g4_fuzz_json(i->tools, i->tools_len);
    g4_fuzz_json(i->callable, i->callable_len);
    g4_fuzz_json(i->schema, i->schema_len);
    g4_fuzz_must((i->tools == NULL) == (i->callable == NULL) && (i->format == G4_FORMAT_TEXT) == (i->schema == NULL));
    g4_fuzz_must(i->tool_choice < G4_TOOLS_REQUIRED || i->tools != NULL);
    g4_fuzz_must((i->tool_choice == G4_TOOLS_NAMED) == (i->tool_name != NULL));
    g4_fuzz_must(isnan(i->temperature) || i->temperature >= 0);
    g4_fuzz_must(i->max_tokens >= 0 && i->top_k >= -1 && i->n_top >= 0 && i->thinking >= -1 && i->thinking <= 1);
    for (int k = 0; k < i->n_stop; k++) g4_fuzz_must(i->stop[k][0] != '\0');
}

static inline void g4_fuzz_refusal(g4_status st, const g4_error *err)
{
    g4_fuzz_must(st == G4_ERR_ARGUMENT || st == G4_ERR_FORMAT || st == G4_ERR_UNSUPPORTED);
    g4_fuzz_must(err->code == st && err->message[0] != '\0');
}

static inline void g4_fuzz_chat(const g4_request *r, const char *template_name)
{
    g4_chat *c;
    g4_error err = { 0 };
    g4_fault fault;
    const g4_chat_options opt = { .template_name = template_name };
    const g4_media_options small = { .ffmpeg = "", .max_pixels = 1 << 16, .max_samples = 1 << 16 };
    const g4_status st = g4_request_chat(&c, NULL, r, &opt, &fault, &err);
    if (st != G4_OK) {
        g4_fuzz_refusal(st, &err);
        return;
    }
    size_t len;
    const char *text = g4_chat_text(c, &len);
    g4_fuzz_must(text != NULL && strncmp(text, "<bos>", 5) == 0);
    if (g4_chat_load_media(c, &(g4_chat_load_options) { .media = &small }, &err) == G4_OK) {
        for (int i = 0; i < g4_chat_n_media(c); i++) {
            g4_chat_medium m;
            g4_fuzz_must(g4_chat_media(c, i, &m, NULL) == G4_OK && m.is_set);
        }
    }
    g4_chat_close(c);
}

#endif
