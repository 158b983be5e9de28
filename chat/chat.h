/* chat.h - what the files of chat/ share: conversations, answers, grammars. */
#ifndef GEMMA4_CHAT_H
#define GEMMA4_CHAT_H

#include "../engine/generate.h"

/* ---- JSON ---------------------------------------------------------------------------------- */

typedef enum {
    G4_JSON_NULL,
    G4_JSON_FALSE,
    G4_JSON_TRUE,
    G4_JSON_NUMBER,
    G4_JSON_STRING,
    G4_JSON_ARRAY,
    G4_JSON_OBJECT
} g4_json_kind;
typedef struct g4_json g4_json;
struct g4_json { /* one node; children are a linked list */
    g4_json_kind kind;
    const char *key; /* member name inside an object, else NULL; NUL-terminated, key_len bytes */
    size_t key_len;
    const char *text; /* string: its UTF-8 bytes (may hold NUL), number: as written in the document */
    size_t text_len;
    double number;
    g4_json *child, *next;
};
/* Parse one document (RFC 8259, whole input). All nodes and strings live in one arena, freed by g4_json_free(root).
 * On error err names the line, column and what was expected. Nesting beyond 512 is an error. */
g4_status g4_json_parse(g4_json **root, const g4_allocator *a, const char *text, size_t len, g4_error *err);
void g4_json_free(const g4_allocator *a, g4_json *root);
const g4_json *g4_json_get(const g4_json *object, const char *key); /* NULL when absent; the last of duplicates wins */
/* Append s as a JSON string with its quotes; invalid UTF-8 becomes U+FFFD. */
void g4_json_quote(g4_buf *b, const char *s, size_t len);

/* ---- Conversations and answers (chat.c) ------------------------------------------------------- */

/* g4_chat_parse without an engine, with an allocator of one's own. */
g4_status g4_chat_parse_with(g4_chat **out, const g4_allocator *a, const char *json, size_t len,
                             const g4_chat_options *opt, g4_error *err);

typedef enum { /* what an answer is made of: bytes, or one of these control tokens */
               G4_CONTROL_NONE,
               G4_CONTROL_CHANNEL,
               G4_CONTROL_CHANNEL_END,
               G4_CONTROL_CALL,
               G4_CONTROL_CALL_END,
               G4_CONTROL_RESPONSE,
               G4_CONTROL_QUOTE,
               G4_CONTROL_TURN,
               G4_CONTROL_TURN_END,
               G4_CONTROL_OTHER,
               G4_N_CONTROLS
} g4_control;
/* g4_response_open without an engine; t may be NULL when only g4_response_feed is used, which g4_response_push calls
 * for each token. */
g4_status g4_response_new(g4_response **out, const g4_allocator *a, const g4_tokenizer *t, int in_thought,
                          g4_part_fn fn, void *user, g4_error *err);
int g4_response_feed(g4_response *r, g4_control control, const char *bytes, size_t n);
/* Grammars without an engine. A state is a number; 0: nothing fits. */
g4_status g4_grammar_schema(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t, const char *schema,
                            size_t len, g4_error *err);
g4_status g4_grammar_rules(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t, const char *rules,
                           size_t len, g4_error *err);
int32_t g4_grammar_start(g4_grammar *g);
int32_t g4_grammar_read(g4_grammar *g, int32_t state, g4_token token);
int32_t g4_grammar_settle(g4_grammar *g,
                          int32_t state); /* give memory back when many states are known: the state's new number */
const uint32_t *g4_grammar_mask(
    g4_grammar *g, int32_t state); /* of the state, which owns it, until the next settle; NULL: no memory */
int g4_grammar_accepts(const g4_grammar *g, int32_t state); /* may the text end here? */

#endif /* GEMMA4_CHAT_H */
