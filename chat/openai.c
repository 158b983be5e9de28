/* openai.c - what clients send beyond the template's own format: arguments of calls as JSON text, as OpenAI's interface
 * has them, and media by path, URL, data: URL or base64 under several names. It works on the trees of a document; what
 * becomes of them is conversation.c's. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <stdio.h>
#include <string.h>

/* ---- Arguments of calls -------------------------------------------------------------------------- */

/* Arguments that are text become the object that the text is; blank text becomes null. */
static g4_status g4_openai_parse_arguments(g4_arena *m, g4_json *arguments, const char *place, g4_halt *halt,
                                           g4_error *err)
{
    const char *s = arguments->text;
    size_t n = arguments->text_len;
    g4_py_strip(&s, &n);
    if (n > 0) return g4_json_object_in(arguments, m, s, n, place, halt, err);
    arguments->kind = G4_JSON_NULL;
    return G4_OK;
}

g4_status g4_openai_arguments(g4_arena *m, const g4_json *messages, g4_halt *halt, g4_error *err)
{
    int i = 0;
    if (!g4_json_is(messages, G4_JSON_ARRAY)) return G4_OK; /* rendering refuses it */
    for (const g4_json *message = messages->child; message != NULL; message = message->next, i++) {
        const g4_json *calls = g4_json_given(message, "tool_calls");
        int k = 0;
        if (g4_halted(halt)) return g4_halt_check(halt, err);
        if (!g4_json_is(calls, G4_JSON_ARRAY)) continue;
        for (const g4_json *call = calls->child; call != NULL; call = call->next, k++) {
            g4_json *arguments = g4_json_find(g4_json_get(call, "function"), "arguments");
            char place[96];
            if (!g4_json_is(arguments, G4_JSON_STRING)) continue;
            snprintf(place, sizeof place, "messages[%d].tool_calls[%d].function.arguments", i, k);
            const g4_status st = g4_openai_parse_arguments(m, arguments, place, halt, err);
            if (st != G4_OK) return st;
        }
    }
    return G4_OK;
}

/* ---- Sources of media ---------------------------------------------------------------------------- */

/* The first string under one of the known names in a content part, or in the objects that stand under them; NULL: none.
 * *is_base64: the name says so. */
static const g4_json *g4_medium_source_text(const g4_json *part, int *is_base64)
{
    static const char *const names[] = { "image_url", "input_audio", "image", "audio", "video",
                                         "url",       "path",        "data",  "base64" };
    enum { FIRST_BASE64 = 7, N_NAMES = 9 };
    while (part != NULL) {
        const g4_json *inner = NULL;
        for (int i = 0; i < N_NAMES && inner == NULL; i++) {
            const g4_json *v = g4_json_get(part, names[i]);
            if (g4_json_is(v, G4_JSON_STRING)) {
                *is_base64 = i >= FIRST_BASE64;
                return v;
            }
            if (g4_json_is(v, G4_JSON_OBJECT)) inner = v;
        }
        part = inner;
    }
    return NULL;
}

g4_status g4_medium_source_find(g4_medium_source *out, const g4_json *part, int message, g4_error *err)
{
    int is_base64 = 0;
    const g4_json *v = g4_medium_source_text(part, &is_base64);
    *out = (g4_medium_source) { 0 };
    if (v == NULL) return G4_OK;
    const char *s = v->text;
    size_t n = v->text_len;
    if (n > 5 && memcmp(s, "data:", 5) == 0) {
        const char *comma = memchr(s, ',', n);
        if (comma == NULL || comma - s < 12 || memcmp(comma - 7, ";base64", 7) != 0)
            return g4_fail(err, G4_ERR_FORMAT, "messages[%d]: a data URL must hold base64", message);
        n -= (size_t)(comma + 1 - s);
        s = comma + 1;
        is_base64 = 1;
    }
    if (is_base64)
        *out = (g4_medium_source) { .base64 = s, .n_base64 = n };
    else
        out->place = s;
    return G4_OK;
}

/* The six bits of a letter of base64, of either alphabet; 64: it is none. */
static uint32_t g4_base64_bits(char ch)
{
    if (ch >= 'A' && ch <= 'Z') return (uint32_t)(ch - 'A');
    if (ch >= 'a' && ch <= 'z') return (uint32_t)(ch - 'a' + 26);
    if (g4_is_digit(ch)) return (uint32_t)(ch - '0' + 52);
    if (ch == '+' || ch == '-') return 62;
    return ch == '/' || ch == '_' ? 63 : 64;
}

int g4_base64_decode(const char *s, size_t n, uint8_t *out, size_t *size)
{
    uint32_t bits = 0;
    int n_letters = 0, padded = 0; /* n_letters: of the group of four that is being read */
    *size = 0;
    for (size_t i = 0; i < n; i++) {
        if (g4_is_blank(s[i])) continue;
        if (s[i] == '=') {
            padded = 1;
            continue;
        }
        const uint32_t six = g4_base64_bits(s[i]);
        if (six > 63 || padded) return 0;
        bits = bits << 6 | six;
        if (++n_letters == 4) {
            for (int shift = 16; shift >= 0; shift -= 8) out[(*size)++] = (uint8_t)(bits >> shift);
            n_letters = 0;
            bits = 0;
        }
    }
    if (n_letters == 1) return 0;
    if (n_letters >= 2) out[(*size)++] = (uint8_t)(bits >> (n_letters == 2 ? 4 : 10));
    if (n_letters == 3) out[(*size)++] = (uint8_t)(bits >> 2);
    return 1;
}
