/* chat.h - what the files of chat/ share: conversations, answers, grammars. One section a file, in the order in which
 * they stand on each other. */
#ifndef GEMMA4_CHAT_H
#define GEMMA4_CHAT_H

#include "../engine/generate.h"

/* ---- Ending a call early --------------------------------------------------------------------- */

/* Asks a halt now and then: for loops whose steps are short. Zero it to start, with `halt` set. */
typedef struct {
    g4_halt *halt; /* NULL: never */
    uint32_t n;    /* steps so far */
    int ended;     /* stays set */
} g4_asker;
static inline int g4_ask(g4_asker *k)
{
    if (k->halt != NULL && !k->ended && (++k->n & 63) == 0) k->ended = g4_halted(k->halt);
    return k->ended;
}
/* What made a call fail that builds until its memory is out or it is halted: says one or the other. */
g4_status g4_fail_short(g4_halt *halt, g4_error *err, const char *fmt, ...) G4_PRINTF(3, 4);
/* qsort, which can be halted: returns 0 then, and when it is out of memory. */
int g4_sort(const g4_allocator *a, void *base, size_t n, size_t size, int (*compare)(const void *, const void *),
            g4_halt *halt);

/* ---- Equal elements by their hash (table.c) ---------------------------------------------------- */

static inline uint64_t g4_hash_mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}
uint32_t g4_hash_bytes(const char *s, size_t n);

typedef struct {
    uint32_t epoch, hash; /* an epoch that is not the table's: the slot is free */
    int32_t index;        /* of the element in its owner's list */
} g4_slot;
typedef struct { /* open addressing; zero it to start, and free its slots */
    g4_slot *slots;
    int n_slots; /* a power of two */
    uint32_t epoch;
} g4_hash_table;
/* The i-th slot to look into for a hash. */
static inline g4_slot *g4_table_slot(const g4_hash_table *t, uint32_t hash, uint32_t i)
{
    return &t->slots[(hash + i) & (uint32_t)(t->n_slots - 1)];
}
/* The next element with that hash, which need not be equal; -1: no more. *i is 0 to begin. */
static inline int32_t g4_table_next(const g4_hash_table *t, uint32_t hash, uint32_t *i)
{
    if (t->n_slots == 0) return -1;
    for (const g4_slot *slot; (slot = g4_table_slot(t, hash, (*i)++))->epoch == t->epoch;)
        if (slot->hash == hash) return slot->index;
    return -1;
}
/* Make room for element number n, at most half of the slots being used. 0: no memory. */
int g4_table_reserve(g4_hash_table *t, const g4_allocator *a, int n);
void g4_table_put(g4_hash_table *t, uint32_t hash, int32_t index); /* which is not there, and for which there is room */
void g4_table_clear(g4_hash_table *t);

/* ---- JSON, and the arena its trees live in (json.c) ------------------------------------------ */

/* Classes of characters that JSON, calls, patterns and rules share; ASCII only. */
static inline int g4_is_digit(char ch) { return ch >= '0' && ch <= '9'; }
static inline int g4_is_letter(char ch) { return (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z'); }
static inline int g4_is_blank(char ch) { return ch == ' ' || ch == '\t' || ch == '\n' || ch == '\r'; }
/* Where the blanks of the n bytes of s end that begin at pos. */
static inline size_t g4_skip_blanks(const char *s, size_t n, size_t pos)
{
    while (pos < n && g4_is_blank(s[pos])) pos++;
    return pos;
}
static inline int g4_is_one_of(const char *set, char ch) { return ch != '\0' && strchr(set, ch) != NULL; }
/* Where byte pos of a text of n bytes stands, for errors; columns in characters, both from 1. Halted, it ends early. */
void g4_text_place(const char *s, size_t n, size_t pos, size_t *line, size_t *column, g4_halt *halt);

/* Memory that is given back all at once. Zero it to start, with `a` set. */
typedef struct g4_arena_chunk g4_arena_chunk;
typedef struct {
    const g4_allocator *a;
    g4_arena_chunk *chunks; /* the newest first; only that one is filled */
} g4_arena;
void *g4_arena_alloc(g4_arena *m, size_t n); /* n bytes, all zero; NULL: no memory */
void g4_arena_free(g4_arena *m);

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
/* The same into an arena of the caller's, which frees it. `what` stands before what err says; it may be NULL. */
g4_status g4_json_parse_in(g4_json **root, g4_arena *m, const char *text, size_t len, const char *what, g4_halt *halt,
                           g4_error *err);

const g4_json *g4_json_get(const g4_json *object, const char *key); /* NULL when absent; the last of duplicates wins */
g4_json *g4_json_find(const g4_json *object, const char *key);      /* the same, for the owner of the tree to change */
const g4_json *g4_json_given(const g4_json *object, const char *key); /* the same, but null counts as absent */
static inline int g4_json_is(const g4_json *v, g4_json_kind kind) { return v != NULL && v->kind == kind; }
void g4_json_set(g4_json *v, const g4_json *value);   /* another value in the same place of the tree */
int g4_json_is_text(const g4_json *v, const char *s); /* is it a string, and this one? */
int g4_json_key_is(const g4_json *member, const char *name);
int g4_json_key_in(const g4_json *member, const char *const *names); /* one of a list that ends with NULL */
int g4_json_equal(const g4_json *a, const g4_json *b); /* NULL counts as null; members may stand in any order */

const char *g4_json_kind_name(const g4_json *v); /* for errors: "nothing", "a number", "an object" */
int g4_json_is_number(const char *s, size_t n);  /* are these bytes a number, and nothing else? */
/* Append s as a JSON string with its quotes; invalid UTF-8 becomes U+FFFD. */
void g4_json_quote(g4_buf *b, const char *s, size_t len);
void g4_json_write(g4_buf *b, const g4_json *v);             /* append the value as JSON again, without blanks */
int g4_hex_read(const char *s, int n_digits, uint32_t *out); /* 0 when one of the n_digits characters is none */
char g4_json_unescape(char letter);                          /* what a backslash before it means; NUL: nothing */
/* \uXXXX, or two of them that are a surrogate pair, at the start of s: the bytes read, or 0. A surrogate without its
 * partner is given out as it is. */
size_t g4_json_unescape_unicode(const char *s, size_t n, uint32_t *cp);

/* ---- Text as Python sees it (pytext.c) --------------------------------------------------------- */

void g4_py_upper(g4_buf *b, const char *s, size_t n); /* str.upper() of names, appended */
int g4_py_is_space(uint32_t cp);                      /* str.isspace() */
void g4_py_strip(const char **s, size_t *n);          /* str.strip(): moves *s and shortens *n */
/* str(), appended; NULL, Jinja's undefined, is nothing. Halted, the buffer has failed. */
void g4_py_str(g4_buf *b, const g4_json *v, g4_halt *halt);
int g4_py_truthy(const g4_json *v); /* bool(); NULL is false */

typedef struct { /* a member of a map, and the text that it is sorted by */
    const g4_json *node;
    const char *text;
    size_t len, order; /* order: its place in the map; equal texts keep theirs */
} g4_sorted;
int g4_sorted_compare(const void *pa, const void *pb);

typedef struct {
    g4_sorted *members;
    size_t n;
    g4_buf lowered; /* the texts */
} g4_dictsort;
/* Jinja's dictsort: the members of an object by their lower-cased names. Returns 0 when out of memory or halted; close
 * it in any case. */
int g4_dictsort_open(g4_dictsort *d, const g4_allocator *a, const g4_json *object, g4_halt *halt);
void g4_dictsort_close(g4_dictsort *d);

/* ---- Control tokens of answers (control.c) ----------------------------------------------------- */

/* What an answer is made of: bytes, or one of these control tokens. */
typedef enum {
    G4_CONTROL_NONE, /* not one of these: bytes of text */
    G4_CONTROL_CHANNEL,
    G4_CONTROL_CHANNEL_END,
    G4_CONTROL_CALL,
    G4_CONTROL_CALL_END,
    G4_CONTROL_RESPONSE,
    G4_CONTROL_QUOTE,
    G4_CONTROL_TURN,
    G4_CONTROL_TURN_END,
    G4_CONTROL_OTHER, /* a control token that has no part in answers */
    G4_N_CONTROLS
} g4_control;
#define G4_QUOTE "<|\"|>" /* the name of G4_CONTROL_QUOTE, which stands around strings in calls and tools */

typedef struct {
    g4_token id[G4_N_CONTROLS]; /* by g4_control; -1: the vocabulary has none */
} g4_controls;
void g4_controls_bind(g4_controls *c, const g4_tokenizer *t);      /* t may be NULL: none of them */
g4_control g4_controls_find(const g4_controls *c, g4_token token); /* G4_CONTROL_NONE: it is none of them */

/* ---- Prompts (template.c) ---------------------------------------------------------------------- */

/* Where a message comes from that was made of another dialect's request. */
typedef struct {
    int message; /* the client's; -1: what stands before them, -2: all of them are one text */
    int block;   /* of it; -1: all of it */
} g4_origin;

typedef struct {
    const g4_json *messages; /* array */
    const g4_json *tools;    /* NULL: none */
    int thinking, add_generation_prompt, preserve_thinking;
    int continue_final; /* the last message, which is the model's, is left open */
    /* Messages are as openai.c leaves them: a tool message bears the name of its call, and arguments that are text are
     * written as they are, where the template would refuse them. */
    int is_resolved;
    const g4_origin *origins; /* of the messages, for errors; NULL: they are the client's */
    g4_template kind;
} g4_render_input;

/* The calls of a message by their ids. Zeroed it is empty. */
typedef struct g4_indexed_call g4_indexed_call;
typedef struct {
    const g4_allocator *a;
    g4_indexed_call *calls; /* in the order of their ids */
    int n;
} g4_call_index;
/* calls: a list. Returns 0 when out of memory or halted. */
int g4_call_index_open(g4_call_index *x, const g4_allocator *a, const g4_json *calls, g4_halt *halt);
void g4_call_index_close(g4_call_index *x);
/* The last call with that id (NULL is the id of calls without one), or the first that was not taken yet, or when all
 * were the last; NULL: there is none. */
const g4_json *g4_call_index_last(const g4_call_index *x, const g4_json *id);
const g4_json *g4_call_index_take(const g4_call_index *x, const g4_json *id);

typedef enum { G4_MARK_CONTROL, G4_MARK_IMAGE, G4_MARK_AUDIO, G4_MARK_VIDEO } g4_mark_kind;
typedef struct {
    size_t offset, len; /* bytes of the control token's name in the text */
    g4_mark_kind kind;
    int message;         /* the message it belongs to; -1: none */
    const g4_json *part; /* the content part a media placeholder stands for, else NULL */
} g4_mark;
typedef struct {
    g4_buf text;
    g4_mark *marks; /* by ascending offset */
    int n_marks, cap_marks;
} g4_rendered;
/* out must be zero; on failure it stays empty. */
g4_status g4_render(g4_rendered *out, const g4_allocator *a, const g4_render_input *in, g4_halt *halt, g4_error *err);
void g4_rendered_free(g4_rendered *r);

/* ---- Messages to trees (messages.c) ------------------------------------------------------------ */

static inline size_t g4_part_len(const g4_part *p) /* bytes of its text */
{
    return p->text == NULL ? 0 : p->text_len > 0 ? p->text_len : strlen(p->text);
}

/* The list of messages as template.c takes it, in the arena; texts stay the caller's. media, with room for all parts,
 * gets those that are a picture, sound or video, and their nodes the place in it, from 1, as their number. */
g4_status g4_messages_build(g4_json **list, const g4_part **media, g4_arena *m, const g4_message *messages, int n,
                            g4_halt *halt, g4_error *err);

/* Arguments of a call that are text become the object that the text is; blank text and "null" are none. Any other text
 * stays what it is: it is what the model said, and stands in the prompt as it does here. */
g4_status g4_call_arguments(g4_arena *m, g4_json *arguments, g4_halt *halt, g4_error *err);

/* ---- Where media come from (sources.c) --------------------------------------------------------- */

typedef struct {       /* where a medium comes from; all NULL: its part does not say */
    const char *place; /* path or address, NUL-terminated */
    const char *data;  /* or its bytes, encoded; the text stays in the document */
    size_t n_data;
    int is_base64, is_escaped; /* escaped: with %XX, as in addresses; outside of base64 where it is both */
} g4_medium_source;
/* The first string under one of the known names in a content part, or in the objects that stand under them; NULL: none.
 * *is_base64: the name says so. */
const g4_json *g4_medium_source_text(const g4_json *part, int *is_base64);
/* Of a content part of that message. */
g4_status g4_medium_source_find(g4_medium_source *out, const g4_json *part, int message, g4_error *err);
size_t g4_medium_source_room(const g4_medium_source *s); /* bytes that decoding needs */
g4_status g4_medium_source_decode(const g4_medium_source *s, uint8_t *out, size_t *size, int message, g4_halt *halt,
                                  g4_error *err);
/* Base64 (either alphabet, white space skipped, padding optional) into out of n / 4 * 3 + 3 bytes, which may be where s
 * is; 0 when malformed or halted. */
int g4_base64_decode(const char *s, size_t n, uint8_t *out, size_t *size, g4_halt *halt);
/* Is the file with these first bytes a text, as lists of files to play are? What ffmpeg makes of one is made of other
 * files. Pictures and videos that begin as text but name nothing (PNM, y4m) are none. */
int g4_medium_is_text(const uint8_t *head, size_t n); /* G4_MEDIUM_HEAD bytes are enough */
#define G4_MEDIUM_HEAD 16
/* The first bytes of a file; 0: there are none, which its reader will say in better words. */
size_t g4_medium_read_head(uint8_t head[G4_MEDIUM_HEAD], const char *path);
/* %XX, into n bytes at most; 0 when malformed or halted. */
int g4_percent_decode(const char *s, size_t n, char *out, size_t *size, g4_halt *halt);

/* ---- What clients send (openai.c) -------------------------------------------------------------- */

typedef struct {                   /* what a client calls what we call otherwise */
    const char *list, *system;     /* messages, and what stands before them */
    const char *const (*names)[2]; /* members, whole or the last of a place: ours and theirs, up to a NULL */
} g4_wording;

typedef struct {     /* a document that is being read; zero it to start, with m, err and the asker's halt set */
    g4_arena *m;     /* owns the document, and what is added to it */
    char place[80];  /* of what is being read, as OpenAI names it */
    g4_fault *fault; /* may be NULL */
    const g4_wording *wording; /* of the client, once its document is made anew; NULL: as they are */
    const g4_origin *origins;  /* (n_origins): of its messages */
    int n_origins;
    int no_memory; /* for a tree that is made; whoever makes it asks at its end */
    g4_json lost;  /* stands for a node that there was no memory for */
    g4_asker asker;
    g4_error *err;
} g4_openai;
/* Into a member of the place, or into one that is a list's. */
void g4_openai_enter(g4_openai *o, const char *fmt, ...) G4_PRINTF(2, 3);
/* G4_ERR_ARGUMENT, about that member of what is being read (NULL: about itself). */
g4_status g4_openai_fail(g4_openai *o, const char *member, const char *fmt, ...) G4_PRINTF(3, 4);
/* A list or an object that is made anew; nodes are put at its end. Where there is no memory they are lost. */
typedef struct {
    g4_json *node, *last;
} g4_tree;
g4_tree g4_tree_open(g4_openai *o, g4_json_kind kind);
/* A copy of the value, NULL being null, which shares what is in it: a tree is put where it belongs once it is whole. */
void g4_tree_put(g4_openai *o, g4_tree *t, const char *key, const g4_json *value);
void g4_tree_put_text(g4_openai *o, g4_tree *t, const char *key, const char *text); /* which is not copied */
void g4_tree_keep(g4_openai *o, const g4_buf *b, g4_json *out); /* a copy of the bytes, as a text of the document */
void g4_tree_spell(g4_openai *o, g4_json *v);                   /* v becomes the text that it is as JSON */
/* Messages and tools are brought into the form that the template takes, in place: see in g4_render_input. */
g4_status g4_openai_messages(g4_openai *o, g4_json *messages);
g4_status g4_openai_tools(g4_openai *o, g4_json *tools);
/* The same of a text: a list of tools, or an object with one. *tools is NULL where the text is null. */
g4_status g4_openai_read_tools(g4_json **tools, g4_arena *m, const char *text, size_t len, g4_halt *halt,
                               g4_error *err);

/* ---- Lines of batch files (lines.c) ------------------------------------------------------------ */

/* The name of a line, and the dialect that its address says; *line becomes its body, where it is in one. */
g4_status g4_line_unwrap(g4_openai *o, g4_json **line, g4_request_info *info);

/* ---- Answers as clients read them (answer.c) ----------------------------------------------------- */

int g4_answer_is_call(const g4_part *p); /* one that may be carried out */
int g4_answer_has_calls(const g4_answer *c);
int64_t g4_answer_created(const g4_answer *c);
/* The object up to its choices, the bracket of which is open. */
void g4_answer_head(g4_buf *b, const g4_answer *c, const char *object);
/* The name of a call, quoted: its own, or that of the n-th call of the answer, cut ones counted. */
void g4_answer_call_id(g4_buf *b, const g4_answer *c, const g4_part *call, const char *prefix, int n);

/* How an answer ended, as clients are told. */
typedef enum { G4_ANSWER_DONE, G4_ANSWER_STRING, G4_ANSWER_CALLS, G4_ANSWER_CUT, G4_ANSWER_FULL } g4_answer_end;
/* has_cut_call: a call has been told in part, and is cut. */
g4_answer_end g4_answer_ending(const g4_answer *c, int has_cut_call);
void g4_answer_finish(g4_buf *b, const g4_answer *c, int has_cut_call); /* finish_reason, and stop_reason */
void g4_answer_usage(g4_buf *b, const g4_answer *c);
void g4_answer_timings(g4_buf *b, const g4_answer *c);

/* Tokens as a chat has them, without and with the object around them. */
void g4_answer_tokens(g4_buf *b, const g4_engine *e, const g4_token_logprob *tokens, int n);
void g4_answer_logprobs(g4_buf *b, const g4_engine *e, const g4_token_logprob *tokens, int n);
/* As a text that was continued has them, each list beside the others: texts, probabilities, the best in their place,
 * where in the text they begin, in bytes: the first at *offset, which moves on. */
void g4_answer_lists(g4_buf *b, const g4_engine *e, const g4_token_logprob *tokens, int n, size_t *offset);
/* The arguments of a call as an object; what is none is an empty one. */
void g4_answer_arguments(g4_buf *b, const char *text, size_t n);

/* An answer as the object that clients of each dialect read, and an error. */
void g4_answer_openai(g4_buf *b, const g4_answer *c);
void g4_answer_anthropic(g4_buf *b, const g4_answer *c);
void g4_answer_responses(g4_buf *b, const g4_answer *c);

int g4_refusal_http(const g4_refusal *why); /* its status, given or meant */
void g4_refusal_openai(g4_buf *b, const g4_refusal *why);
void g4_refusal_anthropic(g4_buf *b, const g4_refusal *why);

/* How a dialect writes an answer as it comes, into s->out. A part is opened, gets its text, which is never empty, and
 * is closed before the next. */
typedef struct {
    void (*open_answer)(g4_stream *s);
    void (*open_part)(g4_stream *s, const g4_part *p);
    void (*add)(g4_stream *s, const char *text, size_t n);
    void (*close_part)(g4_stream *s, int is_cut);
    void (*close_answer)(g4_stream *s, const g4_answer *c);
    void (*refuse)(g4_stream *s, const g4_refusal *why);
} g4_stream_form;
extern const g4_stream_form g4_stream_openai, g4_stream_anthropic, g4_stream_responses;

struct g4_stream {
    const g4_allocator *a;
    const g4_stream_form *form;
    g4_answer answer; /* what was known of it; its texts are in `texts` */
    g4_buf texts[4];  /* model, fingerprint, and of a call that is open name and id */
    int include_usage;
    g4_write_fn write;
    void *user;
    g4_buf out;               /* events that were not written yet */
    g4_token_logprob *tokens; /* that stand in no event yet */
    int n_tokens, cap_tokens;
    g4_candidate *best; /* of all of them, one after the other */
    int n_best, cap_best;
    size_t text_offset; /* of the next token in a text that is continued */
    int index;          /* of the part that is open; -1: none is */
    g4_part part;       /* what it is: its kind, and of a call name and id */
    int has_text;       /* it does */
    g4_buf text;        /* that it has so far, where the dialect repeats it */
    int n_told;         /* parts that were told */
    int n_calls;        /* so far, as g4_answer_call_id counts them */
    int n_told_calls;   /* those of them that were told */
    int has_cut_call;   /* one of these was cut */
    int n_events;       /* where they are counted */
    int is_over;        /* the answer was ended or refused */
    g4_status status;   /* what failed first, and is said from then on */
};

/* ---- Requests in other words (anthropic.c, responses.c) ----------------------------------------- */

/* *doc becomes a request in OpenAI's form; what has no place in one goes into info. */
g4_status g4_anthropic_read(g4_openai *o, g4_json **doc, g4_request_info *info);
g4_status g4_responses_read(g4_openai *o, g4_json **doc, g4_request_info *info);

/* ---- Requests (request.c) ---------------------------------------------------------------------- */

void g4_request_render(const g4_request *r, g4_render_input *in); /* what the request says, and nothing else */

/* ---- Conversations (conversation.c) ------------------------------------------------------------ */

/* g4_chat_parse without an engine, with an allocator of one's own. */
g4_status g4_chat_parse_with(g4_chat **out, const g4_allocator *a, const char *json, size_t len,
                             const g4_chat_options *opt, g4_error *err);
const g4_engine *g4_chat_engine(const g4_chat *c); /* may be NULL */
const g4_json *g4_chat_tools(const g4_chat *c);    /* the declared tools as given; may be NULL */
/* g4_batch_add with the conversation as its prompt; media of it are encoded here. */
g4_status g4_chat_add_to_batch(g4_chat *c, g4_batch *b, g4_session *s, const g4_batch_request *r,
                               g4_batch_finish_fn finish, g4_error *err);
/* Does the timeline begin with this conversation, as g4_session_sync_chat leaves it? Else an error. *n: its tokens. */
g4_status g4_chat_check_followed(const g4_chat *c, const g4_session *s, int *n, g4_halt *halt, g4_error *err);

/* ---- Answers (reply.c): a g4_response takes the tokens of one answer apart --------------------- */

/* From now on pieces go to `part`; those before were for the answer alone. */
void g4_response_listen(g4_response *r, g4_part_fn part, void *user);
/* g4_response_open without an engine; t may be NULL when only g4_response_feed is used, which g4_response_push calls
 * for each token. */
g4_status g4_response_new(g4_response **out, const g4_allocator *a, const g4_tokenizer *t, int in_thought,
                          g4_part_fn fn, void *user, g4_error *err);
int g4_response_feed(g4_response *r, g4_control control, const char *bytes, size_t n);
/* The answer did not end, it was ended: text that stands last is incomplete too. Before g4_response_finish. */
void g4_response_cut(g4_response *r);

/* ---- Regular languages (regular.c) ------------------------------------------------------------- */

typedef enum { G4_NET_FINE, G4_NET_NO_MEMORY, G4_NET_TOO_LARGE, G4_NET_HALTED } g4_net_failure;
typedef enum { G4_RAW, G4_ESCAPED } g4_spelling; /* characters as they are, or as inside a JSON string */
typedef struct {
    uint32_t low, high; /* code points */
} g4_char_range;
typedef struct { /* a class of characters; zero it to start */
    g4_char_range *ranges;
    int n, cap;
} g4_class;
#define G4_N_STRING_RANGES 3
extern const g4_char_range g4_string_ranges[G4_N_STRING_RANGES]; /* what stands in a JSON string as it is */

typedef struct g4_regular g4_regular; /* a set of expressions over bytes; equal ones are one */
typedef int32_t g4_re;
#define G4_RE_NONE 0                                               /* no text at all */
#define G4_RE_EMPTY 1                                              /* the empty text */
#define G4_RE_ALL 2                                                /* all texts */
g4_regular *g4_regular_open(const g4_allocator *a, g4_halt *halt); /* NULL: no memory */
void g4_regular_close(g4_regular *r);
/* After a failure (no memory, halted, more than G4_RE_MAX_NODES expressions) every call gives G4_RE_NONE at once and
 * means nothing: who builds asks at the end. Expressions made before stay as they are, and `recover` goes on with them.
 */
g4_net_failure g4_regular_failed(const g4_regular *r);
void g4_regular_fail(g4_regular *r, g4_net_failure why); /* for who builds with it: the first failure stays */
int g4_regular_stops(g4_regular *r);                     /* has it failed, or must the call end? */
const g4_allocator *g4_regular_allocator(const g4_regular *r);
void g4_regular_recover(g4_regular *r, g4_halt *halt);
/* Steps make expressions. Those from number `from` on (an earlier g4_regular_size, 3 at least) are forgotten but for
 * the n kept ones and what they are made of, which get new numbers, in `keep`. */
int32_t g4_regular_size(const g4_regular *r);
void g4_regular_forget(g4_regular *r, int32_t from, g4_re *keep, int n);

g4_re g4_re_set(g4_regular *r, const uint32_t bytes[8]); /* one byte, of a set of bits */
g4_re g4_re_range(g4_regular *r, int low, int high);     /* one byte */
g4_re g4_re_text(g4_regular *r, const char *s, size_t n);
g4_re g4_re_class(g4_regular *r, const g4_class *k, g4_spelling spelling); /* a character of a settled class */
/* Any character; within a JSON string in every spelling that JSON has for it. */
g4_re g4_re_any_char(g4_regular *r, g4_spelling spelling);
g4_re g4_re_concat(g4_regular *r, g4_re a, g4_re b);
g4_re g4_re_or(g4_regular *r, g4_re a, g4_re b);
g4_re g4_re_and(g4_regular *r, g4_re a, g4_re b);
/* The same of two that agree: whatever text both may begin with is the beginning of one of both. Nobody looks for it.
 * */
g4_re g4_re_agree(g4_regular *r, g4_re a, g4_re b);
g4_re g4_re_not(g4_regular *r, g4_re a); /* among all texts of bytes, also those that are no UTF-8 */
g4_re g4_re_any_of(g4_regular *r, const g4_re *list, int n);
g4_re g4_re_repeat(g4_regular *r, g4_re a, int32_t min, int32_t max); /* max below 0: no end */
g4_re g4_re_optional(g4_regular *r, g4_re a);
/* An expression that is said later, and may be made of itself: each text that it is made of must begin with a byte
 * before it comes to itself again. accepts: whether the empty text will be in it. seed: what its print is made of;
 * those that will mean something else have another. */
g4_re g4_re_later(g4_regular *r, int accepts, const uint64_t seed[2]);
void g4_re_define(g4_regular *r, g4_re later, g4_re means);
/* Decimals, without an exponent, that are a multiple of modulus / 10^places; modulus at most G4_RE_MAX_MODULUS. */
#define G4_RE_MAX_MODULUS 10000
g4_re g4_re_multiple(g4_regular *r, int32_t modulus, int32_t places);
typedef struct {
    const char *s;
    size_t n;
} g4_text;
g4_re g4_re_one_of(g4_regular *r, g4_text *texts, size_t n); /* as a tree of words; sorts the texts */

int g4_re_accepts(const g4_regular *r, g4_re a);    /* is the empty text in it? */
g4_re g4_re_step(g4_regular *r, g4_re a, int byte); /* what may follow; G4_RE_NONE: nothing, never a dead end */
const g4_re *g4_re_row(g4_regular *r, g4_re a);     /* all 256 steps; valid until the next call */
typedef struct {                                    /* the same, as it is kept: to[class_of[byte]], also until then */
    int n;
    const uint8_t *class_of;
    const g4_re *to; /* (n), G4_RE_NONE may be there more than once */
} g4_re_view;
g4_re_view g4_re_steps_of(g4_regular *r, g4_re a);
int g4_re_matches(g4_regular *r, g4_re a, const char *s, size_t n); /* is this text in it? */
/* 1: yes, 0: no, -1: not found out within G4_RE_MAX_SEARCH expressions. Then a step may lead to a dead end. */
int g4_re_is_none(g4_regular *r, g4_re a);
int g4_re_disjoint(g4_regular *r, g4_re a, g4_re b);
int g4_re_within(g4_regular *r, g4_re a, g4_re b);
/* Counts above `longest` cut to it: expressions with the same clamp allow the same texts of up to `longest` bytes, but
 * those that go beyond the expression's end alike. Counts within `and` stay, but for a length that is still far away.
 */
g4_re g4_re_clamp(g4_regular *r, g4_re a, int longest);
/* Equal ones of equal expressions, whatever set they are of, and of others different ones. */
void g4_re_print(const g4_regular *r, g4_re a, uint64_t print[2]);
/* A JSON string in all its spellings: of n bytes that are one of them, from quote to quote. NONE: they are not. */
g4_re g4_re_same_string(g4_regular *r, const char *s, size_t n);
/* What stands first in it, and what follows that; EMPTY: nothing does. */
void g4_re_split(const g4_regular *r, g4_re a, g4_re *head, g4_re *rest);
int g4_re_is_repeat(const g4_regular *r, g4_re a, g4_re *body, int32_t *min, int32_t *max); /* max below 0: no end */
int g4_re_is_and(const g4_regular *r, g4_re a);
int g4_re_n_operands(const g4_regular *r, g4_re a); /* of `or` and `and`; else 0 */
g4_re g4_re_operand(const g4_regular *r, g4_re a, int i);
int g4_re_is_without(const g4_regular *r, g4_re a); /* is it `not` of texts that have an end? */
/* Is it a byte of a set, whatever it is, and what follows it? */
int g4_re_is_byte(const g4_regular *r, g4_re a, const uint32_t **bytes, g4_re *rest);

/* ---- Classes of characters (unicode.c) --------------------------------------------------------- */

void g4_class_add(g4_regular *r, g4_class *k, uint32_t low, uint32_t high);
void g4_class_add_both(g4_regular *r, g4_class *k, const g4_class *a,
                       const g4_class *b);                        /* what two settled ones share */
void g4_class_shorthand(g4_regular *r, g4_class *k, char letter); /* that of \d \w \s \D \W \S */
/* What \p{...} or \P{...} names: a general category, a script, a binary property. 0: not known. */
int g4_class_property(g4_regular *r, g4_class *k, const char *s, size_t n, int is_negative);
void g4_class_settle(g4_regular *r, g4_class *k); /* sorted, and ranges that touch joined */
void g4_class_negate(g4_regular *r, g4_class *k); /* all other characters; settled */
void g4_class_free(const g4_regular *r, g4_class *k);

/* ---- Regular expressions (pattern.c) ------------------------------------------------------------ */

typedef struct { /* text that is read, with the escapes and classes that patterns and the grammar notation share */
    g4_regular *r;
    const char *s;
    size_t n, pos;
    const char *wrong;  /* NULL: nothing so far; pos stays where it is wrong */
    int is_unsupported; /* it is sound, but not known here */
} g4_scan;
void g4_scan_fail(g4_scan *p, const char *why);
int g4_scan_next_is(const g4_scan *p, char ch);
/* One character at pos, escapes resolved, into *cp. Returns 1 for an escape that names a class, which is added to k. */
int g4_scan_char(g4_scan *p, uint32_t *cp, g4_class *k);
void g4_scan_class(g4_scan *p, g4_class *k); /* [...] at pos, into a settled class */

/* The texts that contain a match of a regular expression as ECMA-262 defines them, in unicode mode, character by
 * character in their spelling. G4_ERR_FORMAT: malformed; G4_ERR_UNSUPPORTED: sound, or what other dialects have, but
 * not to be had as a regular language or too large; *out is G4_RE_NONE then. `what` stands before what err says. */
g4_status g4_pattern_re(g4_regular *r, g4_re *out, const char *s, size_t n, g4_spelling spelling, const char *what,
                        g4_error *err);

/* ---- Numbers (number.c) -------------------------------------------------------------------------- */

#define G4_NUMBER_DIGITS 128 /* between the first and the last that is not 0 */
typedef struct {
    int is_negative, n; /* n: digits; 0 has none */
    int32_t point;      /* the value is 0.DIGITS * 10^point */
    char digits[G4_NUMBER_DIGITS];
} g4_number;
/* A JSON number, exactly; 0: it has too many digits, or its exponent is too large. */
int g4_number_read(g4_number *d, const char *s, size_t n);
int g4_number_compare(const g4_number *a, const g4_number *b); /* below, at or above 0, as memcmp */
int g4_number_is_whole(const g4_number *a);
typedef struct {
    g4_number value;
    int is_exclusive;
} g4_number_bound;
/* The numbers between two bounds; NULL: none. They are written out, or with one digit, which is not 0, before the point
 * and an exponent from -307 to 307; integers without an exponent, and with nothing but zeros behind a point. 0 has no
 * sign. */
g4_re g4_re_numbers(g4_regular *r, const g4_number_bound *low, const g4_number_bound *high, int is_integer);
g4_re g4_re_any_number(g4_regular *r);                      /* as JSON has them, exponents from -307 to 307 */
g4_re g4_re_any_integer(g4_regular *r, int may_have_point); /* point: zeros may stand behind one, as in 6000.0 */
/* Each number in one spelling: without an exponent, and without a zero or a sign too many. */
g4_re g4_re_plain_numbers(g4_regular *r);
/* All spellings of one number that g4_re_numbers has; those of 0 with a sign, too. */
g4_re g4_re_equal_number(g4_regular *r, const g4_number *value);
void g4_number_write(g4_buf *out, const g4_number *a); /* without an exponent */
/* Numbers that are so written, and zeros behind a point: all are whole, or none is. It sorts the texts. */
g4_re g4_re_written_numbers(g4_regular *r, g4_text *texts, size_t n, int are_whole);
/* All numbers of up to G4_NUMBER_DIGITS characters in those spellings. */
g4_re g4_re_comparable_numbers(g4_regular *r);
/* The multiples of a number, written out. Returns 0 when its digits, without the point, are more than
 * G4_RE_MAX_MODULUS, or it is 0. */
int g4_re_multiples(g4_regular *r, g4_re *out, const g4_number *of);

/* ---- Formats (format.c) -------------------------------------------------------------------------- */

typedef enum {
    G4_FORMAT_UNKNOWN, /* it says nothing */
    G4_FORMAT_EXACT,
    G4_FORMAT_LOOSE /* all valid texts, and some more */
} g4_format_kind;
g4_format_kind g4_format_re(g4_regular *r, const char *name, size_t n, g4_spelling spelling, g4_re *out);

/* ---- Networks (network.c) ---------------------------------------------------------------------- */

typedef enum { G4_EDGE_EMPTY, G4_EDGE_LEXEME, G4_EDGE_ITEM, G4_EDGE_CALL, G4_EDGE_CONTROL } g4_edge_kind;
typedef struct {
    int32_t from, to, next; /* next: index of the node's next edge, -1: none */
    int32_t operand;        /* LEXEME, ITEM: a g4_re; CALL: the rule; CONTROL: a g4_control */
    int32_t before;         /* ITEM: a g4_re */
    uint8_t kind;
} g4_edge;
typedef struct {
    int32_t first;  /* edge, -1: none */
    int32_t rule;   /* that it is of, once the network is finished; -1: none */
    uint8_t is_end; /* of its rule */
} g4_node;
typedef struct {
    int32_t start, end; /* nodes */
    const char *name;   /* for errors; may be NULL */
    size_t name_len;
    uint8_t is_live;    /* it can end */
    uint8_t is_defined; /* it was, and not only named */
    uint8_t has_items;  /* that differ */
} g4_rule;
typedef struct { /* bytes that may come next */
    uint32_t bytes[8];
    int32_t next; /* set in a list of such, -1: none */
} g4_follow_set;

/* Zero it to start, with `a` and the asker's halt set, and a set of expressions. After a failure building goes on for
 * nothing, and the end says what it was. */
typedef struct {
    const g4_allocator *a;
    g4_regular *regular; /* of the lexemes; closed with the network */
    g4_node *nodes;
    g4_edge *edges;
    g4_rule *rules;
    int n_nodes, cap_nodes, n_edges, cap_edges, n_rules, cap_rules;
    int root;        /* the rule of the whole text */
    int32_t start;   /* once it is finished: the node where texts begin */
    int32_t *follow; /* (n_nodes) number of a set: bytes that may come next at a node, whatever is below it */
    g4_follow_set *follow_sets;
    int n_follow_sets;
    char *names; /* of rules */
    /* The texts that count as the same item as this one, read with what stands before it; NULL: itself alone. */
    g4_re (*same_item)(g4_regular *r, const char *text, size_t n);
    g4_net_failure failed;
    g4_asker asker;
} g4_net;
void g4_net_free(g4_net *net);
/* Has it failed, or must the call end? The first asks now and then, as every edge does; the second at once, for steps
 * that may be long. */
int g4_net_stops(g4_net *net);
int g4_net_stops_now(g4_net *net);
int32_t g4_net_node(g4_net *net);
/* A new rule with a start and an end node and nothing between them; returns its number. */
int g4_net_rule(g4_net *net, const char *name, size_t name_len);
void g4_net_empty(g4_net *net, int32_t from, int32_t to);
void g4_net_lexeme(g4_net *net, int32_t from, int32_t to, g4_re re);
/* An item, of an expression without the empty text, behind what stands before it: it must differ from all items that
 * were read before in this call of the rule. Where none is left, what stands before cannot be written either. */
void g4_net_item(g4_net *net, int32_t from, int32_t to, g4_re before, g4_re item);
void g4_net_call(g4_net *net, int32_t from, int32_t to, int rule);
void g4_net_control(g4_net *net, int32_t from, int32_t to, g4_control control);
/* Text from a node on; returns the node behind it. */
int32_t g4_net_text(g4_net *net, int32_t from, const char *s, size_t n);
int32_t g4_net_str(g4_net *net, int32_t from, const char *s);
/* Check a network that is built and make it ready for use. `what` names its source in errors. It asks no more. */
g4_status g4_net_finish(g4_net *net, const char *what, g4_error *err);

/* ---- Grammars (grammar.c) ---------------------------------------------------------------------- */

/* To build one: a new grammar, its network, and the end, where st says how building went; *out is NULL after a failure,
 * and g is closed. */
g4_status g4_grammar_new(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t, g4_halt *halt, g4_error *err);
g4_net *g4_grammar_net(g4_grammar *g);
/* What every public call that makes one checks first; *out is NULL then, and halt that of these limits and the
 * engine's. */
g4_status g4_grammar_check(g4_grammar **out, const g4_engine *e, const char *text, const char *what,
                           const g4_limits *limits, g4_halt *halt, g4_error *err);
g4_status g4_grammar_finish(g4_grammar **out, g4_grammar *g, g4_status st, const char *what, g4_error *err);

/* What follows is asked of a grammar between these two: the halt ends it early. Enter fails when another thread is in.
 * Leave says whether something failed in between; what was not completed is not remembered. */
g4_status g4_grammar_enter(g4_grammar *g, g4_halt *halt, g4_error *err);
g4_status g4_grammar_leave(g4_grammar *g, g4_error *err);

/* A state is a number; 0: nothing fits, or something failed. */
int32_t g4_grammar_start(g4_grammar *g);
int32_t g4_grammar_read(g4_grammar *g, int32_t state, g4_token token); /* behind a whole token */
/* Forget all states but this one, and all that was found out; returns its new number. */
int32_t g4_grammar_forget(g4_grammar *g, int32_t state);
int32_t g4_grammar_settle(g4_grammar *g, int32_t state); /* the same when it has become much */
/* Counts how often states were forgotten: the numbers of another generation mean nothing. */
uint32_t g4_grammar_generation(const g4_grammar *g);
/* The mask of a state, good until the next one; NULL: something failed. */
const uint32_t *g4_grammar_mask(g4_grammar *g, int32_t state);
/* The same into the caller's words; 0: something failed, and they hold nothing. */
int g4_grammar_write_mask(g4_grammar *g, int32_t state, uint32_t *mask);
typedef struct { /* what a grammar holds at the time, for tests of its bounds */
    int states, stacks, expressions, nodes;
    uint64_t visited; /* nodes of trees of tokens that were looked at, since it was made */
    uint64_t work;    /* steps that count towards what a token may take, since it was made */
} g4_grammar_counts;
void g4_grammar_count(const g4_grammar *g, g4_grammar_counts *out);
int g4_grammar_accepts(const g4_grammar *g, int32_t state); /* may the text end here? */
int g4_grammar_failed(const g4_grammar *g);                 /* has something failed since it was entered? */
uint32_t g4_grammar_n_vocab(const g4_grammar *g);           /* tokens of a mask */

/* Masks over the vocabulary: a bit a token. */
static inline size_t g4_mask_words(int n_vocab) { return ((size_t)n_vocab + 31) / 32; }
static inline void g4_mask_set(uint32_t *mask, uint32_t id) { mask[id / 32] |= 1u << (id % 32); }
static inline void g4_mask_allow(uint32_t *mask, g4_token id) /* id below 0: nothing */
{
    if (id >= 0) g4_mask_set(mask, (uint32_t)id);
}
static inline void g4_mask_forbid(uint32_t *mask, g4_token id) /* the same */
{
    if (id >= 0) mask[id / 32] &= ~(1u << (id % 32));
}

/* ---- The grammar notation (notation.c) --------------------------------------------------------- */

/* g4_grammar_from_rules without an engine. */
g4_status g4_grammar_rules(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t, const char *rules,
                           size_t len, g4_halt *halt, g4_error *err);

/* ---- References in schemas (refs.c) ------------------------------------------------------------ */

typedef struct g4_refs g4_refs;
/* Of a document, in its arena; NULL: no memory, or halted. */
g4_refs *g4_refs_open(g4_arena *arena, const g4_json *root, g4_halt *halt);
void g4_refs_close(g4_refs *r);
int g4_refs_dialect(const g4_refs *r); /* the draft that the document names: 3, 4, 6, 7, 2019 or 2020 */
/* Where the reference `ref` of that schema leads; NULL: out of the document, or nowhere. */
const g4_json *g4_refs_find(const g4_refs *r, const g4_json *referrer, const g4_json *ref);
/* Does it depend on the way to a $dynamicRef which of several schemas it means, of which this is one? */
int g4_refs_is_ambiguous(const g4_refs *r, const g4_json *target);
/* Append the place of a node, as /a/b/0; nothing when it is the root or not in the document. */
void g4_refs_path(const g4_refs *r, const g4_json *node, g4_buf *out);

/* ---- What a value must meet (claims.c) --------------------------------------------------------- */

/* A schema that a value must be valid for, or a constant that it must equal; denied: must not. */
typedef struct {
    const g4_json *node;
    uint8_t is_value, is_denied;
} g4_claim;
typedef struct { /* values without parts */
    int null, no, yes;
    g4_re number, string; /* string: between its quotes */
} g4_scalars;
typedef struct { /* claims that must all be met, in the order of the document; equal goals are one */
    g4_claim *claims;
    const g4_json **beside; /* schemas that say, with the claims, in which order members stand: those that other */
    int n_beside;           /* alternatives have here. In the order of the document; 0: the claims alone say it */
    int n, rule;            /* rule: of the network that is made of them; -1: none */
    uint32_t hash;
    uint8_t is_known_empty, has_scalars; /* is_known_empty: 1 yes, 2 not found */
    g4_scalars scalars;
} g4_goal;
#define G4_RE_ANY (-1)   /* in them: every number, every string */
#define G4_RE_LOOSE (-2) /* of a keyword that cannot be held */
#define G4_GOAL_NONE 0   /* nothing meets it */
#define G4_GOAL_ANY 1    /* everything does */

enum { /* sets of types */
       G4_T_NULL = 1,
       G4_T_BOOLEAN = 2,
       G4_T_INTEGER = 4,
       G4_T_NUMBER = 8,
       G4_T_STRING = 16,
       G4_T_ARRAY = 32,
       G4_T_OBJECT = 64,
       G4_T_ANY = 127
};

typedef enum { /* the keywords that say something of a value, and G4_KEY_OTHER, all that do not */
               G4_KEY_OTHER,
               G4_KEY_REF,
               G4_KEY_ADDITIONAL_ITEMS,
               G4_KEY_ADDITIONAL_PROPERTIES,
               G4_KEY_ALL_OF,
               G4_KEY_ANY_OF,
               G4_KEY_CONST,
               G4_KEY_CONTAINS,
               G4_KEY_DEPENDENCIES,
               G4_KEY_DEPENDENT_REQUIRED,
               G4_KEY_DEPENDENT_SCHEMAS,
               G4_KEY_ENUM,
               G4_KEY_EXCLUSIVE_MAXIMUM,
               G4_KEY_EXCLUSIVE_MINIMUM,
               G4_KEY_FORMAT,
               G4_KEY_IF,
               G4_KEY_ITEMS,
               G4_KEY_MAX_ITEMS,
               G4_KEY_MAX_LENGTH,
               G4_KEY_MAX_PROPERTIES,
               G4_KEY_MAXIMUM,
               G4_KEY_MIN_ITEMS,
               G4_KEY_MIN_LENGTH,
               G4_KEY_MIN_PROPERTIES,
               G4_KEY_MINIMUM,
               G4_KEY_MULTIPLE_OF,
               G4_KEY_NOT,
               G4_KEY_NULLABLE,
               G4_KEY_ONE_OF,
               G4_KEY_PATTERN,
               G4_KEY_PATTERN_PROPERTIES,
               G4_KEY_PREFIX_ITEMS,
               G4_KEY_PROPERTIES,
               G4_KEY_PROPERTY_NAMES,
               G4_KEY_REQUIRED,
               G4_KEY_TYPE,
               G4_KEY_UNEVALUATED_ITEMS,
               G4_KEY_UNEVALUATED_PROPERTIES,
               G4_KEY_UNIQUE_ITEMS
} g4_keyword;

typedef struct {          /* the keys that some keyword speaks of: names, and those of an expression; or all others */
    const int32_t *names; /* ascending */
    int n_names;
    g4_re keys;
    int is_complement;
} g4_matcher;

typedef struct { /* what the last walk for the order of names came by: first and last of a list; 0: none */
    int first, last;
} g4_seen;
typedef struct {
    const g4_json *schema;
    int next;
} g4_seen_schema;

typedef struct { /* a name of a member */
    const char *text;
    size_t len;
    const g4_matcher *matcher;     /* of this name alone */
    uint32_t hash, ranked, marked; /* in the last walk of that number */
    int rank;
    uint32_t required; /* when it was marked as one that a branch requires */
    uint32_t listed;   /* the last walk that a list of required members had it in, */
    int place;         /* and as which */
    g4_seen seen;      /* its schemas */
} g4_name;

typedef struct { /* what g4_claim_settle made of a claim, and returned */
    g4_claim claim;
    int found;
} g4_settled;
typedef struct { /* what was found out about a schema */
    const g4_json *node;
    const g4_json *only;   /* the one member that counts, a reference of an older draft; NULL: all do */
    g4_scalars scalars[2]; /* met, denied */
    g4_settled settled[2];
    uint8_t has_settled[2], has_scalars[2], has_types, has_presence, has_pattern, has_target;
    int types, presence;
    g4_re pattern;            /* of a node that is one, or whose name is */
    const g4_json *target;    /* of a node that is a reference; NULL: nowhere */
    int dialect;              /* of the document */
    const g4_json *case_of;   /* the list of schemas where it is part of a choice of many */
    uint32_t taken[4];        /* the last goal that has a claim of it: met, denied, and so as a value */
    uint32_t done;            /* when it was marked as one that a branch has claims of, */
    const void *done_fact;    /* and the last of them */
    uint32_t walked;          /* the last walk for the order of names that came here */
    int order;                /* and as which */
    const g4_matcher *others; /* the keys that its properties and patternProperties do not speak of */
} g4_schema_info;

typedef struct {                 /* a formula over the presence of members: hash-consed, by number */
    uint8_t op, at_none;         /* at_none: does it hold when none of its members is there? */
    int32_t a, b, depth, weight; /* weight: members that it names, each as often as it does */
    uint64_t names;              /* bits of their numbers, modulo 64 */
    uint32_t stamp;              /* of the last g4_need_set that came here, */
    int32_t left;                /* and what it made of it */
} g4_need;
#define G4_NEED_NEVER 0
#define G4_NEED_ALWAYS 1

#define G4_SHAPER_MAX_TOLD 100         /* warnings of a grammar */
#define G4_SHAPER_MAX_LENGTH (1 << 28) /* characters that are counted */

typedef struct {
    const g4_allocator *a;
    g4_arena *arena;
    g4_regular *regular;
    g4_asker asker;
    g4_refs *refs;
    const g4_json *root;
    g4_schema_options options;
    int is_call; /* the call syntax instead of JSON */
    g4_spelling spelling;
    const char *what; /* stands before places in errors */
    g4_schema_info **infos;
    g4_goal **goals;
    g4_name *names;
    g4_need *needs;
    int32_t *ranked; /* the names of the last walk, in their order, */
    g4_seen_schema
        *seen; /* and what it came by: schemas of names, of members by pattern or without either, and those */
    g4_seen seen_patterns, seen_others, seen_arrays; /* that speak of elements; the first is none */
    int n_ranked, cap_ranked, n_seen, cap_seen, n_listed;
    int n_infos, cap_infos, n_goals, cap_goals, n_names, cap_names, n_needs, cap_needs;
    g4_hash_table info_table, goal_table, name_table, need_table;
    g4_schema_info spare_info;               /* when there is no memory */
    const g4_json *told[G4_SHAPER_MAX_TOLD]; /* nodes that were warned of, */
    const char *told_of[G4_SHAPER_MAX_TOLD]; /* and the keywords */
    int n_told;
    uint32_t walk, mark; /* numbers of the last walk over names, and of the last time they were marked */
    int depth;
    int n_facts;                         /* that were put into branches so far */
    int64_t work;                        /* steps so far: see G4_SHAPER_MAX_WORK */
    int presences, n_too_deep;           /* calls of g4_schema_presence that are open; formulas that were loosened */
    uint32_t need_stamp, stamp;          /* of g4_need_set; of what is marked at names and schemas: */
    const void *required, *done;         /* the lists of a branch whose facts are marked, */
    uint32_t required_since, done_since; /* from these stamps on */
    int no_memory;
    g4_re any_text, written_text; /* all strings in every spelling, and in that which expressions are made of */
    g4_status st;
    g4_error *err;
} g4_shaper;

/* 0 when there is no memory. root: the document, in the arena. Close it in any case. */
int g4_shaper_open(g4_shaper *sh, g4_arena *arena, g4_regular *regular, const g4_json *root,
                   const g4_schema_options *opt, int is_call, const char *what, g4_halt *halt, g4_error *err);
void g4_shaper_close(g4_shaper *sh);
int g4_shaper_stops(g4_shaper *sh); /* has it failed, or must the call end? */
/* What cannot be held is loosened, which is said once a place; strict: it is the error. */
void g4_shaper_loosen(g4_shaper *sh, const g4_json *node, const char *keyword, const char *fmt, ...) G4_PRINTF(4, 5);

g4_schema_info *g4_shaper_info(g4_shaper *sh, const g4_json *node);
/* The members of a schema that count, from the first (m NULL) on. */
const g4_json *g4_schema_member(const g4_schema_info *info, const g4_json *m);
g4_keyword g4_keyword_of(const g4_json *member);
const g4_json *g4_schema_target(g4_shaper *sh, const g4_json *s, const g4_json *ref); /* NULL: loosened */
/* A claim behind references and wrappers that say nothing. 0: nothing meets it, 1: everything does, 2: it is *claim. */
int g4_claim_settle(g4_shaper *sh, g4_claim *claim);
int g4_claim_is_loose(const g4_claim *claim); /* of one that settles to anything: because it cannot be held? */
int g4_claims_equal(g4_claim a, g4_claim b);
int g4_claim_may(g4_shaper *sh, g4_claim claim, int type); /* may a value of that type meet it? 0: surely not */
int g4_schema_types(g4_shaper *sh, const g4_json *s);      /* those that may be valid for it */
int g4_value_types(const g4_json *v);
int g4_schema_count(g4_shaper *sh, const g4_json *s, const g4_json *m, int max); /* of a keyword; -1: it says nothing */

int g4_goal_of(g4_shaper *sh, const g4_claim *claims, int n); /* the number of the goal of these */
int g4_goal_with(g4_shaper *sh, int goal, g4_claim claim);    /* and of one more */
/* The same with n schemas beside its claims. */
int g4_goal_beside(g4_shaper *sh, int goal, const g4_json *const *beside, int n);
const g4_scalars *g4_goal_scalars(g4_shaper *sh, int goal);
g4_scalars g4_claim_scalars(g4_shaper *sh, g4_claim claim);
g4_re g4_scalars_text(g4_shaper *sh, g4_re string); /* G4_RE_ANY becomes an expression */

int32_t g4_shaper_name(g4_shaper *sh, const char *s, size_t n);
const g4_matcher *g4_matcher_new(g4_shaper *sh, const int32_t *names, int n, g4_re keys, int is_complement);
int g4_matcher_has(g4_shaper *sh, const g4_matcher *k, int32_t name);
const g4_matcher *g4_schema_others(g4_shaper *sh, const g4_json *s);
g4_re g4_pattern_keys(g4_shaper *sh, const g4_json *s, const g4_json *property); /* those that it matches */
g4_re g4_name_text(g4_shaper *sh, int32_t name); /* a key as it stands between its quotes, or bare */
g4_re g4_names_text(g4_shaper *sh, const int32_t *names, int n);
int g4_names_sort(g4_shaper *sh, int32_t *names, int n); /* ascending, each once; returns how many are left */

enum { G4_NEED_NEVER_OP, G4_NEED_ALWAYS_OP, G4_NEED_VAR, G4_NEED_NOT, G4_NEED_AND, G4_NEED_OR };
void g4_need_open(g4_shaper *sh);
int g4_need_dependent(g4_shaper *sh, const g4_json *member); /* if that member is there, so are those it lists */
int g4_need_var(g4_shaper *sh, int32_t name);
int g4_need_not(g4_shaper *sh, int need);
int g4_need_and(g4_shaper *sh, int a, int b);
int g4_need_or(g4_shaper *sh, int a, int b);
int g4_need_list(g4_shaper *sh, const g4_json *names);             /* all names of a list must be there */
int g4_need_set(g4_shaper *sh, int need, int32_t name, int there); /* what is left when that is known */
int g4_need_at_none(const g4_shaper *sh, int need);                /* does it hold when no member is there? */
int g4_need_exactly_one(g4_shaper *sh, const int *needs, int n,
                        int *none);                            /* *none: the formula that none of them is */
int *g4_presences(g4_shaper *sh, const g4_json *list, int *n); /* of all schemas of a list, to be freed; NULL: no */
int g4_schema_presence(g4_shaper *sh, const g4_json *s); /* of schemas of objects that say nothing else; else -1 */

/* ---- Shapes of schemas (shape.c) --------------------------------------------------------------- */

#define G4_SHAPE_SOME 5 /* sorts of members, or of elements, that must be among others */

typedef struct {
    int32_t name;
    int goal, rank, place, is_required; /* place: among those that are required and have no rank */
    int sorts[1 << G4_SHAPE_SOME];      /* the goal of one that counts for each set of sorts; G4_GOAL_NONE: it cannot */
} g4_member_shape;
typedef struct { /* members without a name of their own */
    g4_re keys;
    int goal, sorts[1 << G4_SHAPE_SOME];
} g4_rest_shape;
typedef struct g4_object_shape g4_object_shape;
struct g4_object_shape {
    g4_object_shape *next;
    g4_member_shape *members; /* n_ordered in their order, then those that may stand anywhere behind them */
    g4_rest_shape *rest;
    int n_members, n_ordered, n_rest, n_some;
    int need, min, max; /* formula; number of members, max below 0: no end */
};

typedef struct {
    g4_claim claim;
    int from, min, max;
} g4_some_shape;
typedef struct g4_array_shape g4_array_shape;
struct g4_array_shape {
    g4_array_shape *next;
    const void *items; /* what is said of elements; g4_array_goal reads it */
    g4_some_shape some[G4_SHAPE_SOME];
    int n_some, n_first; /* n_first: elements that may differ from all that follow */
    int min, max, is_unique;
};
/* What objects, and arrays, meet a goal: any of the shapes. NULL: none does. */
g4_object_shape *g4_shape_objects(g4_shaper *sh, int goal);
g4_array_shape *g4_shape_arrays(g4_shaper *sh, int goal);
/* The goal of element `index`; of `some` those in `with` hold for it too, and those in `without` do not. */
int g4_array_goal(g4_shaper *sh, const g4_array_shape *s, int index, unsigned with, unsigned without);

/* ---- Items that must differ (distinct.c) --------------------------------------------------------- */

#define G4_DISTINCT_SORTS 64  /* items that are not alike */
#define G4_DISTINCT_VALUES 64 /* that are told apart, */
#define G4_DISTINCT_ITEMS 64  /* of so many items that must be there */

typedef struct {     /* items that are alike */
    g4_re item, all; /* all: of the values, each with all its texts */
    int first, n;    /* values in the list */
    int is_large;    /* as many values as there are items, or more: they are not listed */
    int is_known;    /* they are, all of them */
    uint64_t values; /* which, once they have numbers */
} g4_distinct_sort;
typedef struct { /* an expression that a search for a text came to */
    g4_re re;
    int32_t before;
    char byte;
} g4_distinct_found;
#define G4_DISTINCT_MAX_WORK 30000 /* expressions that are looked at in all lists of a grammar */
typedef struct {                   /* zero it to start, with left, r and same_item set */
    int left;                      /* of G4_DISTINCT_MAX_WORK */
    g4_regular *r;
    g4_re (*same_item)(g4_regular *r, const char *text, size_t n); /* as g4_net has it */
    const g4_allocator *a;
    g4_distinct_sort sorts[G4_DISTINCT_SORTS];
    g4_re *values;            /* by their numbers, in the end */
    int *sort_of;             /* (n) */
    g4_distinct_found *found; /* of the search, */
    g4_hash_table table;      /* by expression */
    g4_re plain;
    int n, n_sorts, n_values, cap_values, n_found, cap_found;
} g4_distinct;
typedef enum {
    G4_DISTINCT_ALWAYS, /* whatever is written, there are values left for those that follow */
    G4_DISTINCT_CHOICE, /* g4_distinct_fits says whether there are */
    G4_DISTINCT_NEVER,  /* there are not */
    G4_DISTINCT_UNKNOWN
} g4_distinctness;
/* Of n items that must be there and differ. Close it in any case. */
g4_distinctness g4_distinct_open(g4_distinct *d, const g4_re *items, int n);
void g4_distinct_close(g4_distinct *d);
/* Can the items from one on have values that differ and are not among those used? */
int g4_distinct_fits(const g4_distinct *d, int from, uint64_t used);

/* ---- JSON Schema (schema.c) -------------------------------------------------------------------- */

/* g4_grammar_from_schema without an engine. */
g4_status g4_grammar_schema(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t, const char *schema,
                            size_t len, const g4_schema_options *opt, g4_halt *halt, g4_error *err);
/* g4_grammar_from_tools without an engine, of a list that is parsed already. */
g4_status g4_grammar_tools(g4_grammar **out, const g4_allocator *a, const g4_tokenizer *t, const g4_json *tools,
                           const char *only, const g4_schema_options *opt, g4_halt *halt, g4_error *err);

/* guide.c and boxes.c, which stand above these, share nothing: gemma4.h declares what they define. */

#endif /* GEMMA4_CHAT_H */
