/* Fuzz conversations: bytes become messages of all roles and kinds of parts, with tools, and these a prompt. It must
 * have the control tokens of its template and no others, whatever the texts say, and its tokens must spell it. Run from
 * the repository root. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "chat/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void g4_fuzz_demand(int is_so)
{
    if (!is_so) __builtin_trap();
}

enum { G4_FUZZ_MESSAGES = 8, G4_FUZZ_PARTS = 4, G4_FUZZ_TEXT = 64 };

typedef struct { /* what the bytes say */
    const uint8_t *data;
    size_t size;
    g4_message messages[G4_FUZZ_MESSAGES];
    g4_part parts[G4_FUZZ_MESSAGES][G4_FUZZ_PARTS];
    char texts[2 * G4_FUZZ_MESSAGES * G4_FUZZ_PARTS + 4][G4_FUZZ_TEXT + 1];
    int n_messages, n_texts;
} g4_fuzz_case;

static unsigned g4_fuzz_byte(g4_fuzz_case *c)
{
    if (c->size == 0) return 0;
    c->size--;
    return *c->data++;
}

/* A text up to a NUL, with what matters to a reader of prompts among it. */
static const char *g4_fuzz_take_text(g4_fuzz_case *c)
{
    static const char *const words[] = { "<|turn>",    "<turn|>",          "<|channel>thought\n",
                                         "<channel|>", "<|tool_call>",     "<tool_call|>",
                                         "<|\"|>",     "<|tool_response>", "<|image|>",
                                         "<bos>",      "model\n",          "\xe2\x80\xae",
                                         "\xff",       "{\"a\": 1}",       " \n" };
    char *text = c->texts[c->n_texts++];
    size_t n = 0;
    unsigned ch;
    while ((ch = g4_fuzz_byte(c)) != 0 && n < G4_FUZZ_TEXT) {
        const char byte = (char)ch, *add = ch < 1 + sizeof words / sizeof words[0] ? words[ch - 1] : &byte;
        const size_t len = add == &byte ? 1 : strlen(add);
        if (n + len > G4_FUZZ_TEXT) break;
        memcpy(text + n, add, len);
        n += len;
    }
    text[n] = '\0';
    return text;
}

static g4_part g4_fuzz_take_part(g4_fuzz_case *c, g4_role role)
{
    static const char *const arguments[] = { "{}", "{\"a\": [1, null, {\"b\": \"<|\\\"|>\"}], \"c\": 1e3}",
                                             "{\"x\": \"\"}" };
    const unsigned what = g4_fuzz_byte(c);
    g4_part p = { .kind = G4_PART_TEXT, .text = g4_fuzz_take_text(c) };
    if (role == G4_ROLE_MODEL && what % 4 == 1) p.kind = G4_PART_THOUGHT;
    if (role == G4_ROLE_MODEL && what % 4 == 2)
        p = (g4_part) {
            .kind = G4_PART_TOOL_CALL, .name = p.text, .text = arguments[what / 4 % 3], .incomplete = what >= 128
        };
    if (role == G4_ROLE_TOOL) p = (g4_part) { .kind = G4_PART_TOOL_RESULT, .name = "f", .text = p.text };
    return p;
}

static void g4_fuzz_take_messages(g4_fuzz_case *c)
{
    while (c->size > 0 && c->n_messages < G4_FUZZ_MESSAGES) {
        g4_message *m = &c->messages[c->n_messages];
        const unsigned what = g4_fuzz_byte(c);
        m->parts = c->parts[c->n_messages++];
        m->role = (g4_role)(what % 6);
        m->n_parts = (int)(what / 8 % (G4_FUZZ_PARTS + 1));
        if (m->role == G4_ROLE_OTHER) m->role_name = g4_fuzz_take_text(c);
        for (int i = 0; i < m->n_parts; i++) c->parts[c->n_messages - 1][i] = g4_fuzz_take_part(c, m->role);
    }
}

/* Control tokens that a prompt has beside those of the messages are few and known. */
static int g4_fuzz_is_special(const g4_engine *e, g4_token id)
{
    const g4_token_kind kind = g4_token_get_kind(e, id);
    return kind == G4_TOKEN_CONTROL || kind == G4_TOKEN_MEDIA;
}

/* Every message has two control tokens, a call six at most and two for each string in it, a result six, a thought two;
 * the head has bos, a turn, thinking and the tools, the end of the prompt three. */
static int g4_fuzz_max_specials(const g4_fuzz_case *c)
{
    int n = 2 + 3 + 40 + 4;
    for (int i = 0; i < c->n_messages; i++) n += 6 + 14 * c->messages[i].n_parts;
    return n;
}

static void g4_fuzz_check_prompt(g4_engine *e, g4_chat *chat, const g4_fuzz_case *c)
{
    g4_prompt p;
    size_t len, pos = 0;
    int n_specials = 0;
    const char *text = g4_chat_text(chat, &len);
    g4_fuzz_demand(strlen(text) == len);
    g4_fuzz_demand(g4_chat_prompt(chat, &p, NULL) == G4_OK && p.n > 0);
    for (int i = 0; i < p.n; i++) {
        char piece[256];
        const size_t n = g4_token_bytes(e, p.tokens[i], 0, piece);
        g4_fuzz_demand(pos + n <= len);
        if (memcmp(text + pos, piece, n) != 0) __builtin_trap();
        n_specials += g4_fuzz_is_special(e, p.tokens[i]);
        pos += n;
    }
    g4_fuzz_demand(pos == len && n_specials <= g4_fuzz_max_specials(c));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = { "31b-2026-07", "e2b-2026-07", "31b-2026-04" };
    static const char tools[] =
        "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"description\": \"<|turn>\", "
        "\"parameters\": {\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"string\"}}}}}]";
    static g4_engine *e;
    g4_error err = { G4_OK, "" };
    g4_chat *chat;
    if (e == NULL &&
        g4_engine_open(&e, &(g4_engine_options) { .model_path = "tests/data/vocab.g4", .n_threads = 1 }, &err))
        abort();
    g4_fuzz_case *c = calloc(1, sizeof *c);
    if (c == NULL) return 0;
    c->data = data;
    c->size = size;
    const unsigned head = g4_fuzz_byte(c);
    g4_fuzz_take_messages(c);
    const g4_chat_options opt = { .template_name = names[head % 3],
                                  .thinking = head >> 2 & 1,
                                  .preserve_thinking = head >> 3 & 1,
                                  .no_generation_prompt = head >> 4 & 1,
                                  .tools = head >> 5 & 1 ? tools : NULL };
    if (g4_chat_open(&chat, e, c->messages, c->n_messages, &opt, &err) == G4_OK)
        g4_fuzz_check_prompt(e, chat, c);
    else
        g4_fuzz_demand(err.code == G4_ERR_ARGUMENT && strncmp(err.message, "messages", 8) == 0);
    g4_chat_close(chat);
    free(c);
    return 0;
}
