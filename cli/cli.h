/* cli.h - the floor of the command line: what run.c and the files of cli/ share. The command line is the library's
 * first client: it uses what gemma4.h declares and no private name, so it also links with the shared library (make lint
 * checks it).
 *
 * Lowest first; a file calls only those before it:
 *   buffer.c    text that grows
 *   terminal.c  the terminal's mode and size
 *   files.c     messages to the user, signals, the clock, files read and written
 *   paths.c     what people write for the name of a file
 *   inputs.c    what the command line names: texts, pictures, sounds, videos
 *   options.c   options and their values
 *   words.c     the command line: which command, which options, which question
 *   checks.c    whether it goes together
 *   config.c    what the environment and a file say instead
 *   help.c      help, the man page and completions, made from the tables
 *   models.c    where model files lie, which one is meant
 *   model.c     a model is opened and read into memory; progress of a prompt; tokens of a text
 *   width.c     columns of a text on a terminal
 *   history.c   the lines that were typed before
 *   keys.c      keys from a terminal
 *   complete.c  what may stand at the cursor
 *   line.c      the line editor
 *   answer.c    an answer on its way to the user
 *   openai.c    the document of --messages
 *   messages.c  a conversation: what was said
 *   saved.c     the file that keeps a conversation
 *   room.c      a conversation that outgrows its context
 *   tools.c     the functions that a model calls
 *   turn.c      a turn of the model: from the conversation to its answer
 *   talk.c      the chat on a terminal
 *   towers.c    what the towers read and make: encode, mel, patches
 *   raw.c       text, and media in it, that goes on without a chat template
 *   dump.c      activations into a file
 *   inspect.c   the other commands below the chat template
 *   calibrate.c what the matrices of a model are multiplied with
 *   bench.c     speed
 *   lines.c     the files of a batch: lines with requests, and their answers in order
 *   prefix.c    beginnings that prompts of a batch share
 *   requests.c  a request on its way to its answer
 *   jobs.c      a line of a batch on its way to its answer
 *   batch.c     a batch: which lines are answered when, and what the user is told
 *   http.c      requests of HTTP as they come
 *   multipart.c forms as browsers and libraries send files
 *   socket.c    sockets, and who is still at their other end
 *   scheduler.c who is answered when, and in which session
 *   trace.c     what the server has done
 *   connection.c a client of it: one request after another
 *   access.c    who may ask it
 *   answers.c   the routes that read a prompt
 *   completions.c texts that go on, several in a request, with what was there already
 *   transcribe.c a sound becomes text
 *   routes.c    what is answered where
 *   serve.c     the server; what these files share is in serve.h
 *   run.c       the tables of options and commands, one question and one answer, main
 *
 * Nearly every function returns the exit status of the program: DONE, FAILED, USAGE, or 128 and the number of the
 * signal that interrupted it. A function that returns FAILED or USAGE has said why on stderr. Answers go to stdout, and
 * everything else to stderr: what the chat says to its user too. */
#ifndef CLI_H
#define CLI_H

#define _DEFAULT_SOURCE 1 /* sigaction, readlink, fileno, flock under -std=c11 */

#include "../gemma4.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

#if defined(__GNUC__)
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define PRINTF_LIKE(fmt, args)
#endif

/* ---- Text (buffer.c) --------------------------------------------------------------------------- */

/* Bytes that grow; data is NUL-terminated unless it is NULL. After a failed allocation `failed` stays set and nothing
 * is added, so whoever builds a text looks once, at its end. Zeroed it is empty. */
typedef struct {
    char *data;
    size_t len, cap;
    int failed;
} buffer;
void buffer_add(buffer *b, const void *data, size_t n);
int buffer_write(void *b, const void *data, size_t size); /* the same as a g4_write_fn: nonzero without memory */
void buffer_str(buffer *b, const char *s);
void buffer_fmt(buffer *b, const char *format, ...) PRINTF_LIKE(2, 3);
void buffer_vfmt(buffer *b, const char *format, va_list args) PRINTF_LIKE(2, 0);
/* As a JSON string. What could drive a terminal is escaped there. */
void buffer_quote(buffer *b, const char *text, size_t len);
void buffer_free(buffer *b);
static inline const char *buffer_text(const buffer *b) { return b->len > 0 ? b->data : ""; }

/* Text of others (of a model, a file, a document) must not drive a terminal, nor look like what it is not. The stricter
 * the use, the more characters are kept away from it. */
typedef enum {
    USE_TEXT,    /* prose: no control characters but newline and tab, no bidirectional overrides, no hidden text */
    USE_MESSAGE, /* what we say: nothing invisible either */
    USE_NAME     /* a name in a line of ours: no newline and no tab either */
} text_use;
/* Is the character at the start of text, of which n bytes are left, harmless? *bytes gets its length; a byte that
 * belongs to no character is not harmless and 1 long. */
int is_harmless(const char *text, size_t n, text_use use, size_t *bytes);
/* Bytes of the well-formed UTF-8 character at the start of text, of which n bytes are left, and its code point; 0:
 * there is none. */
size_t whole_character(const char *text, size_t n, uint32_t *code);
/* Text with a question mark for each character that is not. */
void buffer_harmless(buffer *b, const char *text, size_t len, text_use use);

/* ---- The terminal of the line editor (terminal.c) ------------------------------------------------ */

int terminal_draws(int fd); /* is it a terminal that can move its cursor? */
int terminal_output(void);  /* the descriptor of the one that the user sees, or -1 */
void terminal_size(int *columns, int *rows);
/* Keys come as they are typed, and pastes in brackets, until terminal_restore; 0: that cannot be. It may be called
 * again, and sets the mode again where another program has changed it. */
int terminal_raw(void);
void terminal_restore(void);                     /* also from a signal handler */
void terminal_write(const char *text, size_t n); /* while it is raw */

enum { DONE = 0, FAILED = 1, USAGE = 2 }; /* a file, a model or the run failed; the command line is wrong */

/* ---- The command line (options.c, config.c, help.c) --------------------------------------------- */

typedef struct arguments arguments;

typedef enum {
    OPTION_HEADING, /* no option: what stands above those that follow, in lists */
    OPTION_FLAG,
    OPTION_INT,
    OPTION_CONTEXT, /* a whole number or max */
    OPTION_NUMBER,
    OPTION_SEED, /* 64 bits, or random */
    OPTION_TEXT,
    OPTION_PATH,
    OPTION_INPUT,
    OPTION_STOP,
    OPTION_BIAS,
    OPTION_KV,
    OPTION_BUDGET, /* of soft tokens */
    OPTION_THINK,
    OPTION_JSON,
    OPTION_BYTES /* a whole number, of KiB, MiB or GiB with a letter behind it */
} option_kind;
typedef struct {
    const char *letter, *name; /* "-m", "--model"; either may be NULL */
    const char *value;         /* what stands for it in the help; NULL for a flag, "[=N]" when it may be left out */
    option_kind kind;
    size_t target; /* where the value goes: the offset of a field of arguments; OPTION_INPUT: which input_kind it is */
    double min, max;
    unsigned commands; /* a bit for each command that takes it */
    const char *help;
} option;

/* What words of the command line are that are no options. Words that name a model are taken by all commands. */
typedef enum { WORDS_NONE, WORDS_PROMPT, WORDS_TOPIC, WORDS_REQUESTS } word_use;
typedef struct {
    const char *name; /* empty: an answer */
    int (*run)(arguments *);
    unsigned bit; /* in option.commands */
    word_use words;
    const char *usage, *help;
} cli_command;

typedef struct { /* the tables of run.c; the first command is the one without a name */
    const option *options;
    int n_options;
    const cli_command *commands;
    int n_commands;
} syntax;

typedef enum { INPUT_TEXT, INPUT_FILE, INPUT_IMAGE, INPUT_AUDIO, INPUT_VIDEO } input_kind;
typedef struct { /* -p, -f, --image, --audio, --video, in the order of the command line */
    input_kind kind;
    const char *value; /* the text, or the path of the file */
    int budget;        /* soft tokens of a picture or of a frame; 0: the model's default */
} input;

enum { MAX_LIST = 64 }; /* of --stop, of --logit-bias */
enum { JSON_OPENAI = 2 };
enum { FRAME_TOKENS = 70 }; /* of a frame of a video, if nobody says otherwise */
enum { CONTEXT_MAX = -1 };  /* of n_ctx: what the model has */

/* What an option sets. Zero, NULL, and -1 or NAN where zero is a value of its own, mean that it was not given. */
struct arguments {
    const syntax *syntax;
    unsigned char *given; /* (n_options): which of them the command line has */
    char **kept;          /* (n_kept): texts that were made of those on the command line, and owned */
    int n_kept;
    const cli_command *command; /* that the command line means */
    const char *topic;          /* what help is about */
    const char *hint;           /* NULL, or what the question may have been meant for */
    const char *model, *system, *isa, *session, *output, *dump, *tokens, *nll, *lengths, *ffmpeg, *template_name;
    const char *requests;                           /* the file of a batch */
    const char *host, *api_key_file, *cors, *trace; /* of the server */
    int port, max_queue, insecure;
    uint64_t max_body;
    double timeout;
    const char *messages, *media_root, *tools, *tool_choice, *tool_exec, *json_schema, *grammar, *boxes, *completions;
    buffer found_model; /* the default of -m */
    input *inputs;
    int n_inputs;
    const char *stop[MAX_LIST];
    int n_stop;
    g4_logit_bias bias[MAX_LIST];
    int n_bias;
    int raw, specials, show_thoughts, yes, quiet, no_guard, no_lookup, no_video_audio, bos, skip_specials;
    int no_history, context_shift;
    int parallel, unordered, resume;
    int strict_schema, closed_schema, frame_times;
    int all, help, version, man, no_config, list_tensors, lock_memory, huge_pages, no_mmap, static_activations;
    int think; /* 1: without a limit; above: the limit plus 1 */
    int json;  /* 1: an object of ours; JSON_OPENAI: a chat.completion */
    int n_ctx, n_threads, repeat, kv, frames, frame_tokens, image_tokens, max_pixels, max_file, block;
    int max_tokens, top_k, logprobs;                            /* -1 */
    double temperature, top_p, min_p;                           /* NAN */
    double repeat_penalty, presence_penalty, frequency_penalty; /* NAN */
    double fps;
    uint64_t seed;
    int has_seed, random_seed; /* it was given; it was drawn, so the user is told it */
    const g4_taps *taps;       /* see the activations; NULL: nobody does */
};
#define FIELD(name) offsetof(arguments, name)

/* Read the command line. *out becomes the command it means. */
int arguments_read(arguments *a, int argc, char **argv, const cli_command **out);
void arguments_free(arguments *a);
/* Keep the text of b for as long as the arguments; b is empty then. NULL, and told, when memory is out. */
char *arguments_keep(arguments *a, buffer *b);
/* The name of the option that sets this field, when the command line has it; else NULL. */
const char *is_given(const arguments *a, size_t field);
/* The option of that name, with its dashes, as this command takes it, or any; NULL: there is none. */
const option *option_find(const syntax *x, const char *name, size_t len, unsigned bit);
/* Set it; `where` stands in front of a message about its value. */
int option_set(arguments *a, const option *o, const char *value, const char *where);
enum { MAX_NAME = 32 };
/* How far `name` is from what may be meant, in letters; the beginning of it counts as one. MAX_NAME: too far. */
int name_near(const char *name, const char *meant);
/* " (do you mean --NAME?)" when an option of these commands is called nearly so. */
void add_near_option(buffer *out, const syntax *x, const char *name, unsigned bits);
const cli_command *command_find(const syntax *x, const char *name); /* NULL: there is none */

/* Does it go together, and can its outputs be written? Nothing has been done yet. */
int arguments_check(const arguments *a);
void arguments_warn(const arguments *a);     /* of options without effect */
const char *chat_option(const arguments *a); /* the first one that needs a chat template, or NULL */
int inputs_have_text(const arguments *a);    /* texts or files of text */
int inputs_are_words(const arguments *a);    /* texts of the command line, and nothing else */
int inputs_check(const arguments *a);        /* is there anything to answer, as far as that can be known yet? */
int requests_check(const arguments *a);      /* the same of a batch */
int inputs_want_text(const arguments *a);    /* there is none, and standard input is free to be it */
/* Media that all stand behind the text of their message come to stand before it, as models were trained. */
void inputs_order(arguments *a);

/* What the command line does not say: GEMMA4_MODEL, then the lines of the user's file. */
int config_read(arguments *a, const cli_command *c);

int run_help(arguments *a);                            /* of a topic, or the man page, or completions */
int help_print(const syntax *x, const cli_command *c); /* of a command */

/* ---- Messages, signals, clock, files (files.c) ------------------------------------------------- */

/* The same to a stream. */
void write_harmless(FILE *f, const char *text, size_t len, text_use use);
/* Text of a model or of a file to a stream: a terminal gets what is harmless, everything else the bytes as they are. */
void show(FILE *f, const char *text, size_t len);
/* One line on stderr, harmless wherever that leads. Returns status, so that a failure is one statement. */
int say(int status, const char *format, ...) PRINTF_LIKE(2, 3);
/* The exit status of a failed library call, its message on stderr. A call that a signal ended is an interrupt. */
int report(const g4_error *err);
int report_of(const char *name, const g4_error *err); /* of something that has a name, which the message has not */

/* From now on SIGINT, SIGTERM and SIGHUP ask the program to stop, and a second one stops it. A write to a closed
 * pipe is an error like any other. */
void watch_signals(void);
/* From now on a mapped file that is cut short ends the program with a line that names it. */
void watch_mapped(const char *path);
int interrupted(void);             /* 0, or the exit status of a program that was asked to stop */
void forget_interrupt(void);       /* Ctrl-C stopped an answer, not the program; other signals still do */
g4_limits until_interrupted(void); /* of calls of the library: they end when the program is asked to stop */
/* Work as long as a file asks for that between pieces of this many bytes. */
enum { LONG_PIECE = 1 << 20 };
int buffer_add_long(buffer *b, const void *data, size_t n); /* buffer_add in pieces */

double seconds_now(void); /* of a clock that only goes forward */
double per_second(double n, double seconds);

/* The file that is meant, appended to out: its name as it is, or without quotes and backslashes, ~ and file: resolved;
 * web addresses are refused. path_expand leaves quotes and backslashes, as of a file that is not there yet. */
int path_read(const char *given, buffer *out);
int path_expand(const char *given, buffer *out);

/* All bytes of a file, or of standard input for "-", appended to out: at most 256 MiB. */
int file_read(const char *path, buffer *out);
/* A medium from standard input: at least MEDIUM_START bytes, if it has so many, and the rest, so many in all. */
enum { MEDIUM_START = 1 << 20 };
int medium_start(buffer *out);
int medium_rest(buffer *out, uint64_t limit);
/* The same of a text, as UTF-8: without a byte order mark in front, and UTF-16 that begins with one is converted. */
int source_read(const char *path, buffer *out);
/* The same of what the model is to read, which nobody else checks: a line tells where it is no UTF-8. */
int text_read(const char *path, buffer *out);

/* A file from its start, or standard input from where it is. Of a pipe the first bytes are read, into out. */
int input_open(FILE **f, const char *path, buffer *out);
/* A file that is read from front to back: no pipe, which would be waited for, no device, no folder. *f is NULL after a
 * failure, and where there is none. */
int regular_open(FILE **f, const char *path);

/* A file being written. It gets its name when it is complete, so a failure leaves nothing behind; what is not a plain
 * file (a pipe, a device, "-") is written directly, and a pipe must have a reader within ten seconds. Zeroed it is
 * closed. */
typedef struct {
    FILE *f;
    const char *path;
    buffer target;    /* where that leads, through links */
    buffer temporary; /* its name until then, in the same folder; both empty when written directly */
} output_file;
int output_open(output_file *o, const char *path);
int output_write(void *o, const void *data, size_t size); /* a g4_write_fn. What failed, output_close says */
/* With status DONE the file gets its name, with any other it goes away. Returns the status of the whole. */
int output_close(output_file *o, int status);

/* Could it be opened? Leaves nothing behind. */
int output_check(const char *path);
int cannot_write(const char *path, int reason); /* says so, with the words of an errno; returns FAILED */

int print_buffer(const buffer *b); /* all of it to standard output, as show does */

/* ---- Model files (models.c) --------------------------------------------------------------------- */

/* A file that comes with the program: beside it, or in the share folder of its installation. 0: it is not there. */
int companion_find(const char *name, buffer *path);
/* Which model is meant: a->model becomes its path. model_default: the one that comes with the program. model_named: the
 * file of a->model, or the model of that name where run_models looks. 0: there is none. */
int model_default(arguments *a);
int model_named(arguments *a);
int model_path(const arguments *a, buffer *path); /* the same for who only asks: *path is that of the model */
/* *path becomes that of the model file of that name among those of `gemma4 models`; 0: there is none. */
int model_find(const char *name, buffer *path);
const char *weight_type(const g4_engine *e); /* the one of most bytes of its layers */

/* ---- Model and session (model.c) ---------------------------------------------------------------- */

/* The model of -m, or the one that comes with the program: then a->model becomes its path. */
int model_open(g4_engine **out, arguments *a);

/* A model that is not in memory yet is read by a thread of its own while the user types or the prompt is prepared, with
 * a line on a terminal until the prompt's own progress or the answer takes its place. Zeroed it has not started. */
typedef struct {
    g4_engine *engine;
    pthread_t thread;
    pthread_mutex_t lock; /* of the line */
    int started, hushed, shown;
    atomic_int quit;
} model_loader;
void loader_start(model_loader *l, g4_engine *e, int shows);
void loader_hush(model_loader *l); /* leave the terminal to others */
void loader_end(model_loader *l);

/* Progress of a prompt: a line on a terminal once it has taken a while, and the place where Ctrl-C stops it. */
typedef struct {
    int enabled, shown;
    double start;         /* 0: the prompt has not begun */
    model_loader *loader; /* NULL, or whose line this one replaces */
} progress_line;
void progress_end(progress_line *p);

int context_size(const arguments *a, const g4_engine_info *info); /* positions of a session, as the command line asks */
/* The session that the command line asks for. Its prompts show their progress in p, which must outlive it. */
g4_session_options session_options(const arguments *a, progress_line *p);

/* BOS and the ids of text in new memory, the caller's to free also after a failure; *n counts both. */
g4_status token_ids(const g4_engine *e, const char *text, size_t len, int specials, g4_token **ids, size_t *n,
                    g4_error *err);
int text_tokens(const g4_engine *e, const buffer *text, int specials, g4_token **ids, size_t *n);

g4_token control_token(const g4_engine *e, const char *name); /* -1: the vocabulary has none */

/* ---- Inputs (inputs.c) --------------------------------------------------------------------------- */

/* The texts and files in order, or standard input when there is none: byte for byte, or the files as text_read reads
 * them. */
int inputs_bytes(const arguments *a, buffer *out);
int inputs_text(const arguments *a, buffer *out);
/* An option's value: the text itself, or the file that holds it. */
int text_or_file(const char *value, int is_text, buffer *out);
g4_part_kind input_part(input_kind kind); /* what it is in a message */
/* The budget of soft tokens that the options give such a medium; 0: the model's default. */
int media_budget(const arguments *a, g4_part_kind kind);

g4_media_options media_options(const arguments *a, int want_sound);

typedef struct {       /* a picture, a sound or a video in memory, with its budget of soft tokens; zeroed it is none */
    g4_part_kind kind; /* G4_PART_IMAGE, _AUDIO or _VIDEO; else there is none */
    g4_image image;
    g4_audio audio;
    g4_video loaded;  /* a video as it was loaded ... */
    g4_video video;   /* ... and with these frames, which tell the budget */
    g4_image *frames; /* (n_frames), their pixels those of loaded */
    void *own;        /* of a medium that stood in a session file: the one block that all of it lies in */
} medium;
int medium_load(medium *m, g4_part_kind kind, const char *path, int budget, const g4_media_options *opt);
int medium_decode(medium *m, g4_part_kind kind, const void *data, size_t size, int budget, const g4_media_options *opt);
void medium_free(medium *m);
/* The block of sound that starts at sample `from`, at most 30 s; past the end one without samples. */
g4_audio sound_block(const g4_audio *sound, size_t from);

/* ---- Characters on a terminal (width.c) ----------------------------------------------------------- */

typedef struct { /* what a reader takes for one character: with what combines with it, and what it is joined with */
    size_t bytes;
    int columns;
    int is_hidden;    /* it must not be shown: a question mark stands for it */
    int needs_base;   /* it combines with nothing and is drawn on a blank */
    int is_uncertain; /* terminals differ in its columns */
} drawn_character;
drawn_character character_at(const char *text, size_t n); /* the first of text, of which n bytes are left */
int text_columns(const char *text, size_t n);
/* Add text with U+FFFD for each byte that belongs to no character, and for NUL. */
void buffer_utf8(buffer *b, const char *text, size_t n);

/* ---- History (history.c) -------------------------------------------------------------------------- */

typedef struct {  /* zeroed it is empty, and forgotten at the end */
    char **lines; /* oldest first */
    int n;
    buffer path; /* of the file that keeps them; empty: none does */
} line_history;
/* The lines of former runs, from $XDG_STATE_HOME/gemma4/history; what is added goes there too. */
void history_open(line_history *h);
void history_add(line_history *h, const char *line);
void history_free(line_history *h);

/* ---- Keys (keys.c) -------------------------------------------------------------------------------- */

#define CONTROL(letter) ((letter)&31)
enum { /* what keys_read returns beside bytes */
       KEY_ENDED = -1,
       KEY_NONE = -2, /* one that means nothing */
       KEY_DRAW = -3, /* the terminal has changed */
       KEY_UP = 0x100,
       KEY_DOWN,
       KEY_LEFT,
       KEY_RIGHT,
       KEY_WORD_LEFT,
       KEY_WORD_RIGHT,
       KEY_HOME,
       KEY_LAST,
       KEY_DELETE,
       KEY_PASTE, /* keys_paste reads it */
       KEY_ESCAPE,
       KEY_ALT = 0x200 /* and the byte that was typed with it */
};
typedef struct { /* bytes that were read and are not used yet; zeroed there are none */
    unsigned char bytes[4096];
    size_t n, at;
} key_input;
typedef struct {
    key_input *ahead; /* what is left of it belongs to the next line */
    size_t n_matched; /* bytes of the end of a paste that were seen */
    int was_return;   /* the last byte of a paste */
    sigset_t old_mask;
    struct sigaction old_resize, old_continue;
} keys;
void keys_begin(keys *k, key_input *ahead); /* from here on, signals come only while keys are waited for */
void keys_end(keys *k);
int keys_waiting(const keys *k); /* is there input? */
int keys_read(keys *k);
/* The character that begins with byte `first`, as far as it comes; returns its bytes. */
size_t keys_character(keys *k, int first, char out[4]);
/* Add what is pasted, its newlines as \n; 0: its sender pauses, so call again. */
int keys_paste(keys *k, buffer *out);

/* ---- Candidates (complete.c) ---------------------------------------------------------------------- */

typedef struct {
    buffer shown, text; /* in the list; what stands in the line */
} candidate;
typedef struct { /* zeroed it is empty */
    candidate *list;
    int n;
    size_t from; /* where in the line their text would stand, up to the cursor */
} completion;
void completion_add(completion *c, const char *shown, const char *text);
void completion_sort(completion *c);
size_t completion_common(const completion *c); /* bytes that all texts begin with; there is one at least */
void completion_free(completion *c);
void complete_file(completion *c, const char *typed); /* the files whose path begins so; typed as path_typed reads it */
/* The path that is typed: with quotes around it, or backslashes in front of blanks; ~ stays what it is. */
void path_typed(const char *text, buffer *out);
int path_given(const char *text, buffer *out); /* the file it names: as it stands there, else as it is typed */

/* ---- Line editor (line.c) ------------------------------------------------------------------------ */

typedef struct {
    key_input ahead;       /* what was typed behind the last line */
    line_history *history; /* NULL: none */
    /* Candidates for the line up to the cursor; 0: Tab is a character there. NULL: it always is. */
    int (*complete)(const char *line, size_t cursor, completion *out);
} line_aids;
typedef enum { LINE_READ, LINE_ENDED, LINE_INTERRUPTED } line_end; /* Enter; end of input; Ctrl-C or a signal */
/* One line of the user into out, which holds what stands in the line at first. aids may be NULL. */
line_end line_read(const char *prompt, line_aids *aids, buffer *out);
/* What was typed before a question is asked does not answer it. */
void line_forget_ahead(void);
/* The user's answer to a question that stands where the user sees it, whatever is redirected, and nothing that was
 * typed before. LINE_ENDED: nowhere. */
line_end line_ask(const char *question, buffer *answer);

/* ---- Answers (answer.c) -------------------------------------------------------------------------- */

typedef struct { /* one answer on its way to the user; zeroed but for args and engine it is ready */
    const arguments *args;
    const g4_engine *engine;
    g4_response *response;     /* of a chat: takes thoughts, text and calls apart; NULL for raw text */
    buffer text;               /* the answer so far */
    buffer logprobs;           /* members of the JSON list, or lines for stderr */
    buffer tokens, best;       /* of a chat.completion: a g4_token_logprob for each token, its g4_candidates */
    const g4_request *request; /* of --messages; NULL: none */
    int ended_by_call;         /* it may make one call, and has */
    int is_chat;               /* the answer to a chat, and no raw text */
    int is_library_s;          /* the library takes it apart, and gives `response` at its end, finished */
    int part;                  /* of the piece that is told: its index */
    uint64_t id;               /* of the answer; 0: drawn */
    g4_stream *stream;         /* is told each piece and token of it; NULL: none is */
    int is_guided;             /* the text must follow a grammar */
    buffer cut;                /* what a limit cut off: "thought", "call of NAME", "call"; empty: nothing but text */
    int in_thought;            /* a thought is being shown on stderr */
    double thought_start;      /* of a thought that is not shown; 0: there is none */
    double thought_told;       /* when its tokens were counted for the user; 0: not yet */
    int called;                /* a call was shown, on a line of its own */
    int stopped;               /* a stop string of a chat was found */
    int write_error;           /* standard output took no more: errno */
} answer_writer;

typedef struct { /* of an answer, for the line on stderr and for --json */
    int prompt_tokens, reused;
    double prompt_seconds;
    g4_result result;
    const char *finish; /* why it ended */
    int is_cut;         /* it did not end, it was cut off there */
    int lacks_call;     /* it has a call, and none that is whole */
} figures;

int answer_open_chat(answer_writer *w, int in_thought); /* what follows is a chat's answer */
/* The same of one that the library takes apart: for g4_batch_respond. generate: of answer_options, which comes after.
 * */
void answer_open_respond(answer_writer *w);
g4_respond_options answer_respond(answer_writer *w, const g4_generate_options *generate, const g4_guide_options *guide,
                                  int streams);
void answer_free(answer_writer *w);
/* How an answer into w is generated; *sampling must stay. When it has ended, with the result of the figures, the
 * others of them are set. */
g4_generate_options answer_options(answer_writer *w, const g4_constraint *constraint, g4_sampling *sampling);
void answer_ended(answer_writer *w, figures *f);
/* Generate an answer into w, and set result, finish and is_cut of the figures. With -n 0 nothing is generated. */
int answer_generate(answer_writer *w, g4_session *s, const g4_constraint *constraint, figures *f);
/* The last of a chat's text, unless status tells of a failure. A thought on display ends in any case. */
int answer_finish_chat(answer_writer *w, int status);
/* The calls of a finished answer that may be carried out; the figures say so when there are any. */
int answer_calls(const answer_writer *w, figures *f);
/* What is known of it, in the terms of the library: at first, and once it has ended. It points into the writer. */
g4_answer answer_describe(const answer_writer *w, const figures *f);
int answer_openai(const answer_writer *w, const figures *f, buffer *out); /* as one chat.completion */
int answer_failed(const answer_writer *w);                                /* memory ran out on its way */
/* What follows the text of an answer: its end on stdout, log-probabilities, warnings and figures on stderr; or all
 * of it as one JSON object. `extra` holds further members of that object, each with a comma in front. An answer that
 * was interrupted ends in the same way. */
int answer_end(const answer_writer *w, const figures *f, const char *extra);

/* ---- Conversations (messages.c) ------------------------------------------------------------------ */

typedef struct { /* a part of a message and all it points to */
    g4_part_kind kind;
    buffer text, name, id; /* text: of a medium, its path */
    int budget;            /* soft tokens of a picture or of a frame; 0: the model's default */
    int incomplete;        /* a call or thought that was cut off: as in g4_part */
    medium medium;         /* once it is loaded */
} message_part;

typedef struct {
    g4_role role;
    message_part *parts;
    int n;
} message;

typedef struct { /* an engine, a session and, for a chat, what was said */
    arguments *args;
    g4_engine *engine;
    g4_session *session;
    g4_engine_info info;
    progress_line progress;
    model_loader loader;
    int raw, thinking;
    int has_forgotten;   /* messages were taken back that the session may still hold */
    int on_terminal;     /* a chat with a user, who can be asked */
    buffer tools;        /* of --tools */
    g4_request *request; /* of --messages; NULL: none */
    g4_guide_options guide;
    g4_schema_options schema; /* how its grammars are made; what is loosened is said on stderr */
    message *messages;
    int n;
    message_part *pending; /* media for the next message */
    int n_pending;
    figures last; /* of the last answer */
} conversation;

message_part *part_add(message_part **parts, int *n, g4_part_kind kind); /* NULL: no memory */
void parts_free(message_part *parts, int n);
int part_is_medium(const message_part *p);
int part_load(const conversation *c, message_part *p); /* a medium, unless it is loaded; other kinds are left alone */
int message_add(conversation *c, g4_role role, message_part *parts, int n); /* takes the parts, also when it fails */
void conversation_cut(conversation *c, int n);                              /* forget the messages from n on */
void messages_free(conversation *c);                                        /* all of them */
void conversation_free(conversation *c);
/* The conversation as the library takes it, that of --messages or what was said: *chat borrows from c. */
int conversation_chat(conversation *c, g4_chat **chat);

/* ---- Session files (saved.c) ---------------------------------------------------------------------- */

/* Open the session: from `path` when that file exists, else empty. What was said before stays when that fails. */
int conversation_open(conversation *c, const char *path);
int conversation_save(const conversation *c, const char *path);
/* May a session be written there? Not in the place of a file that is none. */
int session_check(const char *path);

/* ---- Room in the context (room.c) ------------------------------------------------------------------ */

/* conversation_chat; with --context-shift, the oldest turns are forgotten until there is room for an answer. */
int conversation_fit(conversation *c, g4_chat **chat);
int conversation_too_long(const conversation *c); /* says so, and what to do; returns FAILED */
void conversation_full(const conversation *c);    /* the same after an answer that ends there */
/* Evaluate the conversation as it stands, so that the session holds nothing that was taken back. */
int conversation_settle(conversation *c);

/* ---- The document of --messages (openai.c) --------------------------------------------------------- */

/* Limits and lists that the command line does not give; a request has no more of them than fit. */
void request_options(arguments *a, const g4_request_info *info);
/* Load what the chat of a document names: data, or files below the folder of --media-root, or of the document. */
g4_status document_media(const arguments *a, const char *document, int want_sound, const g4_limits *limits,
                         g4_chat *chat, g4_error *err);
/* Read the request; the command line's arguments that are not given become its own. */
int document_read(conversation *c);
int document_guide(conversation *c); /* what guides the answer to it, where the command line does not say */
int document_chat(const conversation *c, const g4_chat_options *opt, g4_chat **chat); /* with its media */

/* ---- Tools (tools.c), turns (turn.c), the chat (talk.c) ------------------------------------------- */

/* Declare the tools of a JSON list, or of a file with one, as --tool-choice says. After a failure the former stay. */
int tools_declare(conversation *c, const char *tools);
/* Answer the calls of the last message: by the program, or by the user. *answered says whether there were any. */
int tools_answer(conversation *c, int *answered);

/* The grammar of --json-schema or --grammar; *out stays as it is without them. */
int grammar_open(g4_grammar **out, const g4_engine *e, const arguments *a, const g4_schema_options *opt);
int conversation_grammar(conversation *c); /* the grammar of --json-schema or --grammar, if one is given */
int conversation_guide(conversation *c);   /* what guides its answers: --tools, --json-schema, --grammar, --think */
/* Let the model answer, calls and their results included, until it has said what it has to say. */
int conversation_answer(conversation *c);

/* A picture, sound or video of the user's next message. */
int talk_attach(conversation *c, g4_part_kind kind, const char *path, int budget);
int talk_system(conversation *c, const char *text); /* set the system prompt; without text, show it */
int talk(conversation *c);                          /* a line, an answer, until the end of input */

/* ---- Soft tokens (towers.c) ---------------------------------------------------------------------- */

/* The soft tokens of one file, in order: of a picture one piece, of a sound one for each block, of a video one for each
 * frame and, if that is wanted, for each block of its sound. */
typedef struct {
    g4_soft **soft;
    int n, next;   /* next: the first one not used yet */
    double *times; /* (n_frames) of a video's frames, which come first */
    int n_frames;
    double seconds; /* of encoding, without reading the file */
} soft_list;
int soft_list_encode(soft_list *s, g4_engine *e, const arguments *a, const input *file, int want_sound);
void soft_list_free(g4_engine *e, soft_list *s);

/* ---- Text without a template (raw.c) ---------------------------------------------------------------- */

int answer_raw(conversation *c);

/* ---- Activations (dump.c) ------------------------------------------------------------------------ */

typedef struct dump_tensor dump_tensor;
typedef struct { /* activations, each a tensor of all rows that its tap was shown; zeroed it is empty */
    dump_tensor *tensors;
    size_t n, last; /* last: the tensor that was found last */
    int failed;     /* memory ran out */
} dump;
void dump_tap(void *d, const g4_tap *tap);       /* a g4_tap_fn */
int dump_write(const dump *d, output_file *out); /* as safetensors */
void dump_free(dump *d);

/* ---- Lines of a batch (lines.c) -------------------------------------------------------------------- */

enum { MAX_LINE = 64 << 20 }; /* bytes of a line */
typedef struct {
    uint64_t number, at, size; /* from 1; bytes from the start of the file, with the newline */
    uint64_t hash;             /* of its bytes */
    int is_named;
    buffer id;        /* its custom_id, or "line-N" */
    uint64_t twin_of; /* the number of an earlier line of that name; 0: there is none */
    int is_answered;
    uint64_t answer_at, answer_size; /* of an answer that waits in OUT.part; size 0: none does */
} batch_line;
typedef struct { /* those that are not blank */
    const char *name;
    FILE *in;
    batch_line *lines; /* (n) */
    size_t n, cap;
    batch_line **by_name; /* (n) */
} batch_lines;
/* Also after a failure it is to be closed. A pipe is read to its end first. */
int batch_lines_open(batch_lines *b, const char *path);
enum { BATCH_ID_SIZE = 32 };
void batch_line_id(const batch_line *l, char out[BATCH_ID_SIZE]); /* of its answer: it tells which request it answers */
int batch_lines_text(const batch_lines *b, const batch_line *l, buffer *out); /* of at most MAX_LINE bytes */
void batch_lines_close(batch_lines *b);

typedef struct {
    batch_lines *lines;
    const char *name;
    int fd, part;     /* of OUT, of what waits for its turn; -1: not open */
    buffer part_name; /* OUT.part; empty: it needs no name */
    int is_unordered;
    size_t next;      /* the line whose turn it is */
    size_t n_resumed; /* answers that were there */
    size_t n_others;  /* answers of that name to another request: they go */
} batch_answers;
/* Answers into `path`, or standard output where it is NULL. A file that has some is gone on with, or not touched. Also
 * after a failure it is to be closed. */
int batch_answers_open(batch_answers *o, batch_lines *lines, const char *path, int resumes, int is_unordered);
int batch_answers_add(batch_answers *o, batch_line *l, const buffer *text); /* with its newline */
int batch_answers_close(batch_answers *o, int status);                      /* returns the status of the whole */

/* ---- Shared beginnings (prefix.c) ------------------------------------------------------------------ */

enum { MAX_PREFIXES = 4, MAX_NOTED = 64 };
typedef struct {
    g4_session *session; /* of n tokens; NULL: none */
    int n;
    uint64_t used; /* when */
} kept_prefix;
typedef struct {
    g4_token *ids; /* (n), of the latest prompts */
    int n, id;
} noted_prompt;
typedef struct { /* zeroed but for engine, options and n_ctx it is empty */
    g4_engine *engine;
    g4_session_options options;
    int n_ctx; /* positions that are kept at most */
    kept_prefix kept[MAX_PREFIXES];
    noted_prompt noted[MAX_NOTED];
    int n_noted;
    uint64_t clock, n_evaluated;
} prefix_cache;
/* This prompt will come; returns what prefix_fork calls it. */
int prefix_note(prefix_cache *p, const g4_prompt *prompt);
/* A session that holds what the prompt shares with others; *out is NULL where that is nothing. */
g4_status prefix_fork(prefix_cache *p, const g4_prompt *prompt, int id, g4_session **out, g4_error *err);
void prefix_close(prefix_cache *p);

/* ---- Requests (requests.c) ------------------------------------------------------------------------- */

typedef struct { /* made of a text that requests share: it keeps the masks that it has computed */
    buffer text;
    g4_grammar *grammar;
    int n_users;
    uint64_t used; /* when */
} kept_grammar;
enum { MAX_PARALLEL = 64, KEPT_GRAMMARS = 4 * MAX_PARALLEL }; /* two for each that is read or answered */

typedef struct { /* what requests share */
    const arguments *args;
    g4_engine *engine;
    g4_engine_info info;
    g4_session_options session;
    g4_schema_options schema;
    g4_grammar *common; /* of --json-schema or --grammar */
    pthread_mutex_t lock;
    kept_grammar grammars[KEPT_GRAMMARS]; /* under the lock: their places and users */
    uint64_t clock;
} request_shop;
int request_shop_open(request_shop *s, arguments *a); /* the model; the rest stays zero */
void request_shop_close(request_shop *s);

typedef struct { /* a request on its way to its answer */
    request_shop *shop;
    g4_dialect dialect;
    arguments args; /* the command line's, with what the request says */
    g4_limits limits;
    g4_request *request;
    int is_raw;
    int which;     /* of several prompts that the request has */
    g4_chat *chat; /* NULL: raw text */
    g4_token *ids; /* of raw text */
    g4_prompt prompt;
    kept_grammar *form, *tools;
    g4_guide_options guide;
    answer_writer writer;
    g4_sampling sampling;
    g4_generate_options generate;
    figures figures;
    g4_status status; /* G4_OK, or what is wrong with it */
    g4_error error;
    char param[128]; /* the member that is wrong; empty: none in particular */
} request_work;
void request_open(request_work *w, request_shop *shop);
/* Each step after the one before it, on any thread. What is wrong is its status, error and param. document: whose media
 * are loaded, as by document_media. */
g4_status request_read(request_work *w, const char *json, size_t len);
g4_status request_prompt(request_work *w, const char *document);
g4_status request_guide(request_work *w);
g4_status request_wrong(request_work *w, g4_status code, const char *param, const char *format, ...) PRINTF_LIKE(4, 5);
int request_finish(request_work *w);              /* its answer has ended with figures.result */
int request_answer(request_work *w, buffer *out); /* the same, and the object that tells */
void request_close(request_work *w);

/* ---- Jobs (jobs.c) --------------------------------------------------------------------------------- */

typedef struct { /* what lines of a batch share */
    request_shop common;
    prefix_cache prefixes;
    g4_batch *batch;
} batch_shop;

typedef struct { /* a line on its way to its answer */
    batch_shop *shop;
    batch_line *line;
    request_work work;
    int noted; /* among the prompts that may share their beginning */
    g4_guide *guide;
    g4_session *session;
    double begun;
    int is_over; /* it is in no batch any more, or never was: with the status of its work */
} batch_job;
/* The line becomes a prompt, with all that guides its answer. What is wrong with it is the job's status, and it is over
 * then. NULL, and told, when memory is out. */
batch_job *job_open(batch_shop *shop, const batch_lines *lines, batch_line *line);
/* Into the batch. `room`: a session without use, which becomes the job's if it has none to begin in; NULL: none. */
void job_start(batch_job *j, g4_session *room);
/* The line of the answer, or of the error, of a job that is over. */
int job_answer(batch_job *j, buffer *out);
g4_session *job_close(batch_job *j); /* returns its session, which others may use */
void shop_close(batch_shop *s);

/* ---- Commands (towers.c, inspect.c, calibrate.c, bench.c, batch.c) ------------------------------- */

int run_tokenize(arguments *a);
int run_detokenize(arguments *a);
int run_render(arguments *a);
int run_perplexity(arguments *a);
int run_logits(arguments *a);
int run_encode(arguments *a);
int run_mel(arguments *a);
int run_patches(arguments *a);
int run_info(arguments *a);
int run_models(arguments *a);
int run_bench(arguments *a);
int run_calibrate(arguments *a);
int run_batch(arguments *a);
int run_serve(arguments *a);

#endif /* CLI_H */
