/* run.c - the command line of gemma4.c: the only file that prints, exits or reads the environment.
 *
 *   1  Messages, signals, numbers
 *   2  Files
 *   3  Options: one table for all commands
 *   4  Engine and session
 *   5  Line editor
 *   6  Answers: what goes out, raw text
 *   7  Conversations
 *   8  Commands below the chat template: tokens, logits, perplexity, media, info, bench
 *   9  main
 *
 * Every command returns the exit status of the program: 0 done, 1 a file, a model or the run failed, 2 wrong usage,
 * 130 interrupted. Answers go to stdout, everything else to stderr. */
#define _DEFAULT_SOURCE 1

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "chat/chat.h"

enum { G4_EXIT_DONE = 0, G4_EXIT_FAILED = 1, G4_EXIT_USAGE = 2 };

/* ---- 1. Messages, signals, numbers ------------------------------------------------------------ */

/* What a signal handler can reach: the signal that asked the program to stop, and the file to remove if it must stop
 * at once. */
static volatile sig_atomic_t g4_signal;
static const char *volatile g4_unfinished;

static void g4_on_signal(int number)
{
    if (g4_signal != 0) { /* asked twice: the loops that look at g4_signal are not getting there */
        if (g4_unfinished != NULL) unlink(g4_unfinished);
        _exit(128 + number);
    }
    g4_signal = number;
}

static int g4_interrupted(void) { return g4_signal == 0 ? 0 : 128 + (int)g4_signal; }

static int g4_say(int status, const char *fmt, ...) G4_PRINTF(2, 3);
/* One line on stderr; returns status, so that a failure is one statement. */
static int g4_say(int status, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("gemma4: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    return status;
}

/* The exit status of a failed library call, its message on stderr. A cancelled call is an interrupt. */
static int g4_failed(const g4_error *err)
{
    if (err->code == G4_ERR_CANCELED && g4_interrupted()) return g4_interrupted();
    return g4_say(G4_EXIT_FAILED, "%s", err->message);
}

static double g4_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double g4_rate(double n, double seconds) { return seconds > 0 ? n / seconds : 0; }

static int g4_compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double g4_median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, g4_compare_doubles);
    return n % 2 != 0 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

/* ---- 2. Files --------------------------------------------------------------------------------- */

/* All bytes of a file, or of standard input for "-", appended to out. */
static int g4_file_read(const char *path, g4_buf *out)
{
    int is_stdin = strcmp(path, "-") == 0, status = G4_EXIT_DONE;
    FILE *f = is_stdin ? stdin : fopen(path, "rb");
    char block[65536];
    if (f == NULL) return g4_say(G4_EXIT_FAILED, "cannot read %s: %s", path, strerror(errno));
    for (;;) {
        size_t n = fread(block, 1, sizeof block, f);
        if (g4_interrupted()) {
            status = g4_interrupted();
            break;
        }
        g4_buf_add(out, block, n);
        if (ferror(f)) {
            status = g4_say(G4_EXIT_FAILED, "cannot read %s: %s", is_stdin ? "standard input" : path, strerror(errno));
            break;
        }
        if (n < sizeof block) break;
    }
    if (!is_stdin) fclose(f);
    if (status == G4_EXIT_DONE && out->failed) status = g4_say(G4_EXIT_FAILED, "no memory for %s", path);
    return status;
}

/* A file being written. It gets its name when it is complete, so a failure leaves nothing behind; what is not a plain
 * file (a pipe, a device, "-") is written directly. */
typedef struct {
    FILE *f;
    const char *path;
    g4_buf temporary; /* its name until then; empty when written directly */
} g4_out;

static int g4_out_open(g4_out *o, const char *path)
{
    struct stat st;
    memset(o, 0, sizeof *o);
    o->path = path;
    if (strcmp(path, "-") == 0) {
        o->path = "standard output";
        o->f = stdout;
        return G4_EXIT_DONE;
    }
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        o->f = S_ISDIR(st.st_mode) ? (errno = EISDIR, (FILE *)NULL) : fopen(path, "wb");
    } else {
        g4_buf_fmt(&o->temporary, "%s.%ld.tmp", path, (long)getpid());
        if (o->temporary.failed) return g4_say(G4_EXIT_FAILED, "no memory for %s", path);
        o->f = fopen(o->temporary.data, "wb");
        g4_unfinished = o->temporary.data;
    }
    if (o->f != NULL) return G4_EXIT_DONE;
    int status = g4_say(G4_EXIT_FAILED, "cannot write %s: %s", path, strerror(errno));
    g4_unfinished = NULL;
    g4_buf_free(&o->temporary);
    return status;
}

static int g4_out_write(void *user, const void *data, size_t size) /* a g4_write_fn */
{
    g4_out *o = user;
    return (size > 0 && fwrite(data, 1, size, o->f) != size) || g4_interrupted(); /* no bytes may be no pointer */
}

/* Finish: with status 0 the file gets its name, with any other it goes away. Returns the status of the whole. */
static int g4_out_close(g4_out *o, int status)
{
    if (o->f == NULL) return status;
    if (status == G4_EXIT_DONE) status = g4_interrupted();
    int bad = fflush(o->f) != 0 || ferror(o->f);
    int reason = errno;
    if (o->f != stdout && fclose(o->f) != 0) {
        bad = 1;
        reason = errno;
    }
    if (status == G4_EXIT_DONE && o->temporary.len > 0 && !bad && rename(o->temporary.data, o->path) != 0) {
        bad = 1;
        reason = errno;
    }
    if (status == G4_EXIT_DONE && bad) {
        status = g4_say(G4_EXIT_FAILED, "cannot write %s: %s", o->path, strerror(reason));
    }
    if (status != G4_EXIT_DONE && o->temporary.len > 0) unlink(o->temporary.data);
    g4_unfinished = NULL;
    g4_buf_free(&o->temporary);
    o->f = NULL;
    return status;
}

/* Everything of b to standard output in one go. */
static int g4_print_buf(const g4_buf *b)
{
    if (b->failed) return g4_say(G4_EXIT_FAILED, "no memory for the output");
    if (fwrite(b->data, 1, b->len, stdout) == b->len && fflush(stdout) == 0) return G4_EXIT_DONE;
    return g4_say(G4_EXIT_FAILED, "cannot write standard output: %s", strerror(errno));
}

/* ---- 3. Options: one table for all commands ----------------------------------------------------- */

enum { /* who takes an option: one bit for each command */
    G4_FOR_ANSWER = 1 << 0,
    G4_FOR_INFO = 1 << 1,
    G4_FOR_BENCH = 1 << 2,
    G4_FOR_TOKENIZE = 1 << 3,
    G4_FOR_DETOKENIZE = 1 << 4,
    G4_FOR_RENDER = 1 << 5,
    G4_FOR_PERPLEXITY = 1 << 6,
    G4_FOR_LOGITS = 1 << 7,
    G4_FOR_ENCODE = 1 << 8,
    G4_FOR_MEL = 1 << 9,
    G4_FOR_PATCHES = 1 << 10,
    G4_FOR_MEDIA = G4_FOR_ANSWER | G4_FOR_ENCODE | G4_FOR_LOGITS,
    G4_FOR_SESSIONS = G4_FOR_ANSWER | G4_FOR_INFO | G4_FOR_BENCH | G4_FOR_PERPLEXITY | G4_FOR_LOGITS,
    G4_FOR_MODELS = G4_FOR_SESSIONS | G4_FOR_TOKENIZE | G4_FOR_DETOKENIZE | G4_FOR_RENDER | G4_FOR_ENCODE
};

typedef struct g4_args g4_args;
typedef struct {
    const char *name;
    int (*run)(g4_args *);
    unsigned bit;
    const char *usage, *help;
} g4_command;

typedef enum { G4_ARG_TEXT, G4_ARG_FILE, G4_ARG_IMAGE, G4_ARG_AUDIO, G4_ARG_VIDEO } g4_arg_kind;
typedef struct { /* of the user message, in command-line order */
    g4_arg_kind kind;
    const char *value;
    int budget; /* soft tokens of a picture or of a frame; 0: the default */
} g4_arg;

#define G4_MAX_LIST 64 /* of --stop, of --logit-bias */

struct g4_args {
    const g4_command *command;
    const char *model, *system, *isa, *session, *output, *tokens, *nll, *lengths, *ffmpeg, *template_name;
    const char *messages, *tools, *tool_choice, *tool_exec, *json_schema, *grammar, *boxes;
    g4_buf found_model; /* the default of -m */
    g4_arg *parts;
    int n_parts;
    const char *stop[G4_MAX_LIST];
    int n_stop;
    g4_logit_bias bias[G4_MAX_LIST];
    int n_bias;
    int raw, specials, think, show_thoughts, yes, json, quiet, no_guard, no_lookup, no_video_audio, bos, skip_specials;
    int all, help, version;
    int max_tokens, n_ctx, n_threads, top_k, logprobs, repeat, kv, frames, frame_tokens, image_tokens;
    int mlock, huge_pages;
    int block; /* these numbers: -1: not given */
    double temperature, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty, seed;
    double fps; /* these: NAN: not given */
};

typedef enum {
    G4_IS_FLAG,
    G4_IS_INT,
    G4_IS_NUMBER,
    G4_IS_TEXT,
    G4_IS_PART,
    G4_IS_STOP,
    G4_IS_BIAS,
    G4_IS_KV,
    G4_IS_BUDGET,
    G4_IS_THINK
} g4_option_kind;
typedef struct {
    const char *letter, *name; /* "-m", "--model"; either may be NULL */
    const char *value;         /* what stands for it in the help; NULL for a flag */
    g4_option_kind kind;
    size_t at;                 /* offset in g4_args; for a part: its kind */
    double min, max;
    unsigned commands;
    const char *help;
} g4_option;

#define G4_AT(field) offsetof(g4_args, field)
static const g4_option g4_options[] = {
    { "-m", NULL, "FILE", G4_IS_TEXT, G4_AT(model), 0, 0, G4_FOR_MODELS, "model file written by export.py" },
    { "-p", NULL, "TEXT", G4_IS_PART, G4_ARG_TEXT, 0, 0, G4_FOR_ANSWER, "text of the prompt" },
    { "-f", NULL, "FILE", G4_IS_PART, G4_ARG_FILE, 0, 0,
      G4_FOR_ANSWER | G4_FOR_TOKENIZE | G4_FOR_DETOKENIZE | G4_FOR_PERPLEXITY,
      "the exact bytes of FILE as text; - is standard input" },
    { "-f", NULL, "FILE", G4_IS_PART, G4_ARG_AUDIO, 0, 0, G4_FOR_MEL, "a sound: WAV, or what ffmpeg reads" },
    { "-f", NULL, "FILE", G4_IS_PART, G4_ARG_IMAGE, 0, 0, G4_FOR_PATCHES,
      "a picture: PNG, JPEG, PPM, or what ffmpeg reads" },
    { NULL, "--block", "N", G4_IS_INT, G4_AT(block), 0, INT_MAX, G4_FOR_MEL,
      "which block of at most 30 s (default 0)" },
    { NULL, "--template", "NAME", G4_IS_TEXT, G4_AT(template_name), 0, 0, G4_FOR_RENDER,
      "31b-2026-07, e2b-2026-07 or 31b-2026-04 (default: the model's)" },
    { NULL, "--image", "FILE", G4_IS_PART, G4_ARG_IMAGE, 0, 0, G4_FOR_MEDIA,
      "a picture: PNG, JPEG, PPM, or what ffmpeg reads" },
    { NULL, "--audio", "FILE", G4_IS_PART, G4_ARG_AUDIO, 0, 0, G4_FOR_MEDIA, "a sound: WAV, or what ffmpeg reads" },
    { NULL, "--video", "FILE", G4_IS_PART, G4_ARG_VIDEO, 0, 0, G4_FOR_MEDIA, "a video: y4m, or what ffmpeg reads" },
    { NULL, "--image-tokens", "N", G4_IS_BUDGET, G4_AT(image_tokens), 0, 0, G4_FOR_MEDIA | G4_FOR_PATCHES,
      "soft tokens of the pictures behind it: 70, 140, 280 (default), 560 or 1120" },
    { NULL, "--frame-tokens", "N", G4_IS_BUDGET, G4_AT(frame_tokens), 0, 0, G4_FOR_MEDIA,
      "soft tokens of a frame of the videos behind it (default 70)" },
    { NULL, "--frames", "N", G4_IS_INT, G4_AT(frames), 1, 1024, G4_FOR_MEDIA, "frames of a video (default 32)" },
    { NULL, "--fps", "X", G4_IS_NUMBER, G4_AT(fps), 0.001, 1000, G4_FOR_MEDIA, "frames a second instead" },
    { NULL, "--no-video-audio", NULL, G4_IS_FLAG, G4_AT(no_video_audio), 0, 0, G4_FOR_ANSWER,
      "leave the sound of videos out" },
    { NULL, "--ffmpeg", "NAME", G4_IS_TEXT, G4_AT(ffmpeg), 0, 0, G4_FOR_MEDIA | G4_FOR_MEL | G4_FOR_PATCHES,
      "the ffmpeg program (default ffmpeg)" },
    { NULL, "--system", "TEXT", G4_IS_TEXT, G4_AT(system), 0, 0, G4_FOR_ANSWER, "system prompt" },
    { NULL, "--messages", "FILE", G4_IS_TEXT, G4_AT(messages), 0, 0, G4_FOR_ANSWER,
      "answer this conversation in the OpenAI chat format; - is standard input" },
    { NULL, "--tools", "FILE", G4_IS_TEXT, G4_AT(tools), 0, 0, G4_FOR_ANSWER,
      "JSON list of functions the model may call" },
    { NULL, "--tool-choice", "WHICH", G4_IS_TEXT, G4_AT(tool_choice), 0, 0, G4_FOR_ANSWER,
      "auto (default), none, required, or the name of a function" },
    { NULL, "--tool-exec", "PROGRAM", G4_IS_TEXT, G4_AT(tool_exec), 0, 0, G4_FOR_ANSWER,
      "answer calls by running PROGRAM NAME, arguments on its standard input; asks first" },
    { NULL, "--yes", NULL, G4_IS_FLAG, G4_AT(yes), 0, 0, G4_FOR_ANSWER, "run it without asking" },
    { NULL, "--json-schema", "S", G4_IS_TEXT, G4_AT(json_schema), 0, 0, G4_FOR_ANSWER,
      "the answer is JSON that follows this schema: a file, or the schema itself" },
    { NULL, "--grammar", "FILE", G4_IS_TEXT, G4_AT(grammar), 0, 0, G4_FOR_ANSWER, "the answer follows these rules" },
    { NULL, "--boxes", "OUT.png", G4_IS_TEXT, G4_AT(boxes), 0, 0, G4_FOR_ANSWER,
      "draw the boxes and points of the answer on the last picture" },
    { NULL, "--raw", NULL, G4_IS_FLAG, G4_AT(raw), 0, 0, G4_FOR_ANSWER,
      "no chat template: continue the text, begin-of-sequence token in front" },
    { NULL, "--specials", NULL, G4_IS_FLAG, G4_AT(specials), 0, 0, G4_FOR_ANSWER | G4_FOR_TOKENIZE,
      "read markers such as <|turn> in the text as control tokens (with --raw)" },
    { NULL, "--think", "[=N]", G4_IS_THINK, G4_AT(think), 0, 0, G4_FOR_ANSWER,
      "let the model think before it answers, N tokens at most" },
    { NULL, "--show-thoughts", NULL, G4_IS_FLAG, G4_AT(show_thoughts), 0, 0, G4_FOR_ANSWER, "thoughts on stderr" },
    { "-n", NULL, "N", G4_IS_INT, G4_AT(max_tokens), 0, INT_MAX, G4_FOR_ANSWER | G4_FOR_BENCH,
      "tokens to generate at most (default: until the answer or the context ends)" },
    { "-c", NULL, "N", G4_IS_INT, G4_AT(n_ctx), 1, INT_MAX, G4_FOR_SESSIONS,
      "context: positions at most (default 8192, or what the model has)" },
    { "-t", NULL, "N", G4_IS_INT, G4_AT(n_threads), 1, 1024, G4_FOR_SESSIONS | G4_FOR_ENCODE,
      "threads (default: the physical cores)" },
    { NULL, "--temp", "X", G4_IS_NUMBER, G4_AT(temperature), 0, 1e6, G4_FOR_ANSWER,
      "temperature, 0 takes the best token (default: what the model recommends)" },
    { NULL, "--top-k", "N", G4_IS_INT, G4_AT(top_k), 0, INT_MAX, G4_FOR_ANSWER, "choose among the N best, 0: all" },
    { NULL, "--top-p", "X", G4_IS_NUMBER, G4_AT(top_p), 0, 1, G4_FOR_ANSWER,
      "smallest set of this probability, 1: all" },
    { NULL, "--min-p", "X", G4_IS_NUMBER, G4_AT(min_p), 0, 1, G4_FOR_ANSWER, "at least X times the best probability" },
    { NULL, "--repeat-penalty", "X", G4_IS_NUMBER, G4_AT(repeat_penalty), 0, 1e6, G4_FOR_ANSWER,
      "make tokens seen before less likely, 1: off" },
    { NULL, "--presence-penalty", "X", G4_IS_NUMBER, G4_AT(presence_penalty), -1e6, 1e6, G4_FOR_ANSWER,
      "subtracted from logits of tokens in the answer" },
    { NULL, "--frequency-penalty", "X", G4_IS_NUMBER, G4_AT(frequency_penalty), -1e6, 1e6, G4_FOR_ANSWER,
      "the same for each time they occur" },
    { NULL, "--logit-bias", "ID:X", G4_IS_BIAS, 0, 0, 0, G4_FOR_ANSWER, "add X to the logit of token ID (repeatable)" },
    { NULL, "--seed", "N", G4_IS_NUMBER, G4_AT(seed), 0, 9007199254740992.0, G4_FOR_ANSWER,
      "of the random numbers (default 0: the same call gives the same answer)" },
    { NULL, "--stop", "TEXT", G4_IS_STOP, 0, 0, 0, G4_FOR_ANSWER, "end the answer before TEXT (repeatable)" },
    { NULL, "--no-guard", NULL, G4_IS_FLAG, G4_AT(no_guard), 0, 0, G4_FOR_ANSWER,
      "do not end an answer that repeats itself without end" },
    { NULL, "--no-lookup", NULL, G4_IS_FLAG, G4_AT(no_lookup), 0, 0, G4_FOR_ANSWER,
      "do not guess from the text what may follow (the answer is the same)" },
    { NULL, "--logprobs", "N", G4_IS_INT, G4_AT(logprobs), 0, 64, G4_FOR_ANSWER,
      "log-probabilities of each token and of the N best" },
    { NULL, "--session", "FILE", G4_IS_TEXT, G4_AT(session), 0, 0, G4_FOR_ANSWER,
      "go on from FILE if it is there, and write it back at the end" },
    { NULL, "--bos", NULL, G4_IS_FLAG, G4_AT(bos), 0, 0, G4_FOR_TOKENIZE, "put the begin-of-sequence token in front" },
    { NULL, "--skip-specials", NULL, G4_IS_FLAG, G4_AT(skip_specials), 0, 0, G4_FOR_DETOKENIZE,
      "leave control tokens out" },
    { NULL, "--tokens", "LIST", G4_IS_TEXT, G4_AT(tokens), 0, 0, G4_FOR_LOGITS,
      "token ids (\"2,818,5279\"), or @FILE with them; nothing is added" },
    { NULL, "--all", NULL, G4_IS_FLAG, G4_AT(all), 0, 0, G4_FOR_LOGITS, "every position, not only the last" },
    { "-o", NULL, "FILE", G4_IS_TEXT, G4_AT(output), 0, 0, G4_FOR_LOGITS | G4_FOR_ENCODE | G4_FOR_MEL | G4_FOR_PATCHES,
      "little-endian float32; - is standard output" },
    { NULL, "--nll", "FILE", G4_IS_TEXT, G4_AT(nll), 0, 0, G4_FOR_PERPLEXITY,
      "negative log-likelihood of each token, little-endian float32" },
    { NULL, "--lengths", "LIST", G4_IS_TEXT, G4_AT(lengths), 0, 0, G4_FOR_BENCH, "prompt lengths (default 128,512)" },
    { NULL, "--repeat", "N", G4_IS_INT, G4_AT(repeat), 1, 1000, G4_FOR_BENCH, "runs, of which the median (default 3)" },
    { NULL, "--kv", "TYPE", G4_IS_KV, G4_AT(kv), 0, 0, G4_FOR_SESSIONS,
      "keys and values: f16, f32 or q8_0 (default f16; f32 for f32 models)" },
    { NULL, "--mlock", NULL, G4_IS_FLAG, G4_AT(mlock), 0, 0, G4_FOR_SESSIONS,
      "lock the weights in memory: nothing pages them out" },
    { NULL, "--huge-pages", NULL, G4_IS_FLAG, G4_AT(huge_pages), 0, 0, G4_FOR_SESSIONS,
      "copy the weights into huge pages: opens slower, answers faster" },
    { NULL, "--isa", "NAME", G4_IS_TEXT, G4_AT(isa), 0, 0, G4_FOR_SESSIONS | G4_FOR_ENCODE,
      "kernels (default: the best of this CPU)" },
    { NULL, "--json", NULL, G4_IS_FLAG, G4_AT(json), 0, 0,
      G4_FOR_ANSWER | G4_FOR_BENCH | G4_FOR_PERPLEXITY | G4_FOR_ENCODE,
      "print one JSON object" },
    { NULL, "--quiet", NULL, G4_IS_FLAG, G4_AT(quiet), 0, 0, G4_FOR_MODELS, "only errors and warnings on stderr" },
    { "-h", "--help", NULL, G4_IS_FLAG, G4_AT(help), 0, 0, ~0u, "this text" },
    { NULL, "--version", NULL, G4_IS_FLAG, G4_AT(version), 0, 0, ~0u, "the version" },
};
#define G4_N_OPTIONS (sizeof g4_options / sizeof g4_options[0])

/* A whole number or a decimal one, the whole of text; 0 on success. */
static int g4_parse_number(const char *text, double *out)
{
    char *end;
    if (*text == '\0' || *text == ' ') return 1;
    *out = strtod(text, &end);
    return *end != '\0' || isnan(*out);
}

static int g4_wrong_value(const g4_option *o, const char *given, const char *wanted)
{
    return g4_say(G4_EXIT_USAGE, "%s needs %s, not \"%s\"", o->letter != NULL ? o->letter : o->name, wanted, given);
}

/* Store one option's value. */
static int g4_option_set(g4_args *a, const g4_option *o, const char *value)
{
    void *field = (char *)a + (o->kind == G4_IS_PART ? 0 : o->at);
    double x = 0;
    char wanted[96], *end;
    switch (o->kind) {
    case G4_IS_FLAG:
        *(int *)field = 1;
        return G4_EXIT_DONE;
    case G4_IS_TEXT:
        *(const char **)field = value;
        return G4_EXIT_DONE;
    case G4_IS_INT:
        snprintf(wanted, sizeof wanted, "a whole number from %.0f to %.0f", o->min, o->max);
        if (g4_parse_number(value, &x) || x != floor(x) || x < o->min || x > o->max)
            return g4_wrong_value(o, value, wanted);
        *(int *)field = (int)x;
        return G4_EXIT_DONE;
    case G4_IS_NUMBER:
        snprintf(wanted, sizeof wanted, "a number from %g to %g", o->min, o->max);
        if (g4_parse_number(value, &x) || x < o->min || x > o->max) return g4_wrong_value(o, value, wanted);
        if (field == (void *)&a->seed && x != floor(x)) return g4_wrong_value(o, value, "a whole number");
        *(double *)field = x;
        return G4_EXIT_DONE;
    case G4_IS_PART:
        x = o->at == G4_ARG_IMAGE ? a->image_tokens : o->at == G4_ARG_VIDEO ? a->frame_tokens : 0;
        a->parts[a->n_parts++] = (g4_arg){ (g4_arg_kind)o->at, value, x > 0 ? (int)x : 0 };
        return G4_EXIT_DONE;
    case G4_IS_STOP:
        if (*value == '\0') return g4_wrong_value(o, value, "a text that is not empty");
        if (a->n_stop == G4_MAX_LIST) return g4_say(G4_EXIT_USAGE, "more than %d of --stop", G4_MAX_LIST);
        a->stop[a->n_stop++] = value;
        return G4_EXIT_DONE;
    case G4_IS_BIAS: {
        long id = strtol(value, &end, 10);
        if (end == value || *end != ':' || id < 0 || id > INT_MAX || g4_parse_number(end + 1, &x)) {
            return g4_wrong_value(o, value, "ID:X, a token id and a number");
        }
        if (a->n_bias == G4_MAX_LIST) return g4_say(G4_EXIT_USAGE, "more than %d of --logit-bias", G4_MAX_LIST);
        a->bias[a->n_bias++] = (g4_logit_bias){ (g4_token)id, (float)x };
        return G4_EXIT_DONE;
    }
    case G4_IS_BUDGET:
        if (g4_parse_number(value, &x) || (x != 70 && x != 140 && x != 280 && x != 560 && x != 1120)) {
            return g4_wrong_value(o, value, "70, 140, 280, 560 or 1120");
        }
        *(int *)field = (int)x;
        return G4_EXIT_DONE;
    case G4_IS_THINK: /* 1: without a limit; above: the limit + 1 */
        if (value != NULL && (g4_parse_number(value, &x) || x != floor(x) || x < 1 || x >= INT_MAX)) {
            return g4_wrong_value(o, value, "a whole number from 1");
        }
        *(int *)field = 1 + (int)x;
        return G4_EXIT_DONE;
    case G4_IS_KV:
        if (strcmp(value, "f16") == 0) a->kv = G4_KV_USE_F16;
        else if (strcmp(value, "f32") == 0) a->kv = G4_KV_USE_F32;
        else if (strcmp(value, "q8_0") == 0) a->kv = G4_KV_USE_Q8_0;
        else return g4_wrong_value(o, value, "f16, f32 or q8_0");
        return G4_EXIT_DONE;
    }
    return G4_EXIT_DONE;
}

/* The option that `arg` names; of two with one name, the one of this command. For --name=value, *value points behind
 * the equals sign. */
static const g4_option *g4_option_find(const char *arg, unsigned bit, const char **value)
{
    size_t n = strcspn(arg, "=");
    const g4_option *found = NULL;
    *value = NULL;
    for (size_t i = 0; i < G4_N_OPTIONS; i++) {
        const g4_option *o = &g4_options[i];
        int by_letter = o->letter != NULL && strcmp(arg, o->letter) == 0;
        int by_name = o->name != NULL && strlen(o->name) == n && strncmp(arg, o->name, n) == 0;
        if (!by_letter && !by_name) continue;
        if (by_name && arg[n] == '=') *value = arg + n + 1;
        if (found == NULL || (o->commands & bit) != 0) found = o;
    }
    return found;
}

static int g4_args_parse(g4_args *a, int argc, char **argv, int first)
{
    for (int i = first; i < argc; i++) {
        const char *value;
        if (argv[i][0] != '-' || argv[i][1] == '\0') {
            return g4_say(G4_EXIT_USAGE, "what is \"%s\"? A prompt goes behind -p; see gemma4 --help", argv[i]);
        }
        const g4_option *o = g4_option_find(argv[i], a->command->bit, &value);
        if (o == NULL) return g4_say(G4_EXIT_USAGE, "unknown option %s; see gemma4 --help", argv[i]);
        if ((o->commands & a->command->bit) == 0) {
            return g4_say(G4_EXIT_USAGE, "%s is not an option of %s; see gemma4 %s --help", argv[i],
                          a->command->name[0] != '\0' ? a->command->name : "an answer", a->command->name);
        }
        if (o->kind == G4_IS_FLAG && value != NULL) return g4_say(G4_EXIT_USAGE, "%s takes no value", o->name);
        if (o->kind != G4_IS_FLAG && o->kind != G4_IS_THINK && value == NULL) {
            if (i + 1 >= argc) return g4_say(G4_EXIT_USAGE, "%s needs a value: %s", argv[i], o->value);
            value = argv[++i];
        }
        int status = g4_option_set(a, o, value);
        if (status != G4_EXIT_DONE) return status;
    }
    return G4_EXIT_DONE;
}

/* The text of the parts in order, or standard input when there is none. Files are exact bytes. */
static int g4_args_text(const g4_args *a, g4_buf *out)
{
    if (a->n_parts == 0) return g4_file_read("-", out);
    for (int i = 0; i < a->n_parts; i++) {
        if (a->parts[i].kind == G4_ARG_TEXT) {
            g4_buf_str(out, a->parts[i].value);
        } else {
            int status = g4_file_read(a->parts[i].value, out);
            if (status != G4_EXIT_DONE) return status;
        }
    }
    return out->failed ? g4_say(G4_EXIT_FAILED, "no memory for the prompt") : G4_EXIT_DONE;
}

static int g4_is_gap(char c) { return c == ' ' || c == ',' || c == '\n' || c == '\r' || c == '\t'; }

/* Ids separated by blanks, commas or newlines, each within the vocabulary, into new memory. */
static int g4_parse_ids(const char *text, size_t len, int n_vocab, g4_token **ids, size_t *n)
{
    size_t count = 0, i = 0;
    *n = 0;
    *ids = g4_alloc(NULL, len / 2 + 1, sizeof **ids);
    if (*ids == NULL) return g4_say(G4_EXIT_FAILED, "no memory for the token ids");
    for (;;) {
        while (i < len && g4_is_gap(text[i])) i++;
        if (i == len) break;
        const char *word = text + i;
        int64_t id = 0;
        int wrong = 0, shown = 0;
        for (; i < len && !g4_is_gap(text[i]); i++) {
            wrong |= text[i] < '0' || text[i] > '9';
            if (id <= INT_MAX) id = 10 * id + (text[i] - '0');
            if (shown < 20) shown++;
        }
        if (wrong) return g4_say(G4_EXIT_FAILED, "\"%.*s\" is not a token id", shown, word);
        if (id >= n_vocab) {
            return g4_say(G4_EXIT_FAILED, "token id %.*s is out of range: the vocabulary ends at %d", shown, word,
                          n_vocab - 1);
        }
        (*ids)[count++] = (g4_token)id;
    }
    *n = count;
    return G4_EXIT_DONE;
}

/* ---- 4. Engine and session ---------------------------------------------------------------------- */

static void g4_on_log(void *user, g4_log_level level, const char *message)
{
    const g4_args *a = user;
    if (level == G4_LOG_WARNING || (level == G4_LOG_INFO && !a->quiet)) fprintf(stderr, "gemma4: %s\n", message);
}

/* text as one word of a shell command. */
static void g4_shell_word(g4_buf *b, const char *text)
{
    if (text[0] != '\0' &&
        strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+-") == strlen(text)) {
        g4_buf_str(b, text);
        return;
    }
    g4_buf_str(b, "'");
    for (; *text != '\0'; text++) {
        if (*text == '\'') g4_buf_str(b, "'\\''");
        else g4_buf_add(b, text, 1);
    }
    g4_buf_str(b, "'");
}

/* The path of `name` beside the program or in the share folder of its installation; 0 when there is none. */
static int g4_companion(const char *name, g4_buf *out)
{
    static const char *const places[] = { "/", "/../share/gemma4/" };
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) return 0;
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    if (slash == NULL) return 0;
    *slash = '\0';
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        out->len = 0;
        g4_buf_str(out, self);
        g4_buf_str(out, places[i]);
        g4_buf_str(out, name);
        if (!out->failed && access(out->data, R_OK) == 0) return 1;
    }
    return 0;
}

/* A checkpoint instead of a model file: say how to convert it. Returns 0 when path is neither a folder nor a GGUF. */
static int g4_is_checkpoint(const char *path)
{
    struct stat st;
    size_t n = strlen(path);
    int is_folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
    if (!is_folder && !(n > 5 && strcmp(path + n - 5, ".gguf") == 0)) return 0;
    g4_buf command = { 0 }, script = { 0 }, target = { 0 };
    size_t stem = is_folder ? n : n - 5;
    while (is_folder && stem > 1 && path[stem - 1] == '/') stem--;
    g4_buf_add(&target, path, stem);
    g4_buf_str(&target, ".g4");
    g4_buf_str(&command, "python3 ");
    g4_shell_word(&command, g4_companion("export.py", &script) ? script.data : "export.py");
    g4_buf_str(&command, " ");
    g4_shell_word(&command, path);
    g4_buf_str(&command, " -o ");
    if (!target.failed) g4_shell_word(&command, target.data);
    g4_say(G4_EXIT_FAILED, "%s is a %s, not a model file; convert it once with\n  %s", path,
           is_folder ? "folder" : "GGUF file", command.failed ? "export.py" : command.data);
    g4_buf_free(&command);
    g4_buf_free(&script);
    g4_buf_free(&target);
    return 1;
}

static int g4_open_engine(g4_engine **e, g4_args *a)
{
    g4_error err;
    if (a->model == NULL) { /* the one that comes with the program */
        if (!g4_companion("models/tiny.g4", &a->found_model) && !g4_companion("tiny.g4", &a->found_model)) {
            return g4_say(G4_EXIT_USAGE, "no model: give one with -m FILE");
        }
        a->model = a->found_model.data;
        if (!a->quiet) g4_say(0, "using %s", a->model);
    }
    if (g4_is_checkpoint(a->model)) return G4_EXIT_FAILED;
    g4_engine_options opt = { .model_path = a->model, .n_threads = a->n_threads < 0 ? 0 : a->n_threads, .isa = a->isa,
                              .lock_memory = a->mlock, .huge_pages = a->huge_pages, .log = g4_on_log, .user = a };
    return g4_engine_open(e, &opt, &err) == G4_OK ? G4_EXIT_DONE : g4_failed(&err);
}

/* A model that is not in memory yet is read by a thread of its own while the user types or the prompt is prepared,
 * with a line on a terminal until the prompt's own progress or the answer takes its place. */
typedef struct {
    g4_engine *engine;
    pthread_t thread;
    pthread_mutex_t lock; /* of the line */
    int started, hushed, shown;
    atomic_int quit;
} g4_loader;

static int g4_on_load(void *user, uint64_t done, uint64_t total)
{
    g4_loader *l = user;
    pthread_mutex_lock(&l->lock);
    if (!l->hushed) {
        fprintf(stderr, "\rreading the model: %llu of %llu MB", (unsigned long long)(done / 1000000),
                (unsigned long long)(total / 1000000));
        l->shown = 1;
    }
    pthread_mutex_unlock(&l->lock);
    return atomic_load(&l->quit);
}

/* Leave the terminal to others. */
static void g4_loader_hush(g4_loader *l)
{
    if (!l->started) return;
    pthread_mutex_lock(&l->lock);
    if (l->shown) fputs("\r\033[K", stderr);
    l->shown = 0;
    l->hushed = 1;
    pthread_mutex_unlock(&l->lock);
}

static void *g4_loader_main(void *arg)
{
    g4_loader *l = arg;
    g4_error err;
    (void)g4_engine_prefault(l->engine, g4_on_load, l, &err); /* what it does not bring comes when it is needed */
    return NULL;
}

static void g4_loader_start(g4_loader *l, g4_engine *e, int shows)
{
    uint64_t resident, total;
    g4_engine_residence(e, &resident, &total);
    if (resident + total / 20 >= total) return; /* 95 %: the rest is not worth a thread */
    l->engine = e;
    l->hushed = !shows;
    pthread_mutex_init(&l->lock, NULL);
    l->started = pthread_create(&l->thread, NULL, g4_loader_main, l) == 0;
}

static void g4_loader_end(g4_loader *l)
{
    if (!l->started) return;
    g4_loader_hush(l);
    atomic_store(&l->quit, 1);
    pthread_join(l->thread, NULL);
    l->started = 0;
}

/* Progress of a prompt: a line on a terminal once it has taken a while, and the place where Ctrl-C stops it. */
typedef struct {
    int enabled, shown;
    double start;
    g4_loader *loader; /* NULL, or whose line this one replaces */
} g4_meter;

static int g4_on_progress(void *user, uint64_t done, uint64_t total)
{
    g4_meter *m = user;
    double now = g4_now();
    if (m->enabled && m->start == 0) m->start = now;
    if (m->loader != NULL && done > 0) g4_loader_hush(m->loader);
    if (m->enabled && (m->shown || (now - m->start > 0.5 && (m->loader == NULL || done > 0)))) {
        fprintf(stderr, "\rreading the prompt: %llu of %llu tokens", (unsigned long long)done,
                (unsigned long long)total);
        m->shown = 1;
    }
    return g4_interrupted();
}

static void g4_meter_end(g4_meter *m)
{
    if (m->loader != NULL) g4_loader_hush(m->loader);
    if (m->shown) fputs("\r\033[K", stderr);
    m->shown = 0;
    m->start = 0;
}

static g4_session_options g4_session_setup(const g4_args *a, g4_meter *m)
{
    memset(m, 0, sizeof *m);
    m->enabled = !a->quiet && isatty(STDERR_FILENO);
    return (g4_session_options){ .n_ctx = a->n_ctx < 0 ? 0 : a->n_ctx,
                                 .kv = a->kv < 0 ? G4_KV_DEFAULT : (g4_kv_choice)a->kv,
                                 .progress = g4_on_progress,
                                 .user = m };
}

/* BOS and the ids of text in new memory; *n counts both. */
static int g4_ids_of(const g4_engine *e, const g4_buf *text, int specials, g4_token **ids, size_t *n)
{
    g4_error err;
    g4_engine_info info;
    size_t cap = text->len + 1; /* a token is at least one byte */
    g4_engine_get_info(e, &info);
    *ids = g4_alloc(NULL, cap, sizeof **ids);
    if (*ids == NULL) return g4_say(G4_EXIT_FAILED, "no memory for the token ids");
    (*ids)[0] = info.bos;
    if (g4_tokenize(e, text->len > 0 ? text->data : "", text->len, specials, *ids + 1, cap - 1, n, &err) != G4_OK) {
        return g4_failed(&err);
    }
    *n += 1;
    return *n <= INT_MAX ? G4_EXIT_DONE : g4_say(G4_EXIT_FAILED, "the text is too long");
}

/* ---- 5. Line editor -------------------------------------------------------------------------------
 *
 * One logical line in one row that scrolls sideways, UTF-8 throughout. Alt-Enter and pasted newlines become part of the
 * line. Where the terminal cannot do it (TERM=dumb, input from elsewhere) lines are read as they come. */

typedef struct {
    char **lines; /* oldest first */
    int n, cap;
} g4_history;

typedef enum { G4_LINE_READ, G4_LINE_END, G4_LINE_INTERRUPTED } g4_line_end;

static void g4_history_add(g4_history *h, const char *line)
{
    if (line[0] == '\0' || (h->n > 0 && strcmp(h->lines[h->n - 1], line) == 0)) return;
    if (h->n == h->cap) {
        char **grown = g4_realloc(NULL, h->lines, (size_t)h->cap + 64, sizeof *grown);
        if (grown == NULL) return; /* a line forgotten is no reason to stop */
        h->lines = grown;
        h->cap += 64;
    }
    char *copy = g4_alloc(NULL, strlen(line) + 1, 1);
    if (copy == NULL) return;
    memcpy(copy, line, strlen(line));
    h->lines[h->n++] = copy;
}

static void g4_history_free(g4_history *h)
{
    for (int i = 0; i < h->n; i++) g4_free(NULL, h->lines[i]);
    g4_free(NULL, h->lines);
}

typedef struct {
    const char *prompt;
    g4_buf text;
    size_t at;            /* the cursor, a byte offset between characters */
    g4_history *history;
    int shown;            /* line of the history on display; n: the new one */
    g4_buf draft;         /* the new line while an old one is on display */
} g4_line;

/* Bytes of the character at i, and its columns on a terminal: 0 for what combines, 2 for wide scripts and emoji. */
static size_t g4_char_bytes(const g4_buf *b, size_t i)
{
    size_t n = 1;
    while (i + n < b->len && ((unsigned char)b->data[i + n] & 0xC0) == 0x80) n++;
    return n;
}
static int g4_char_columns(const g4_buf *b, size_t i)
{
    static const struct { uint32_t first, last; int columns; } ranges[] = {
        { 0x0300, 0x036F, 0 },   { 0x1100, 0x115F, 2 },   { 0x200B, 0x200F, 0 },   { 0x20D0, 0x20FF, 0 },
        { 0x2E80, 0xA4CF, 2 },   { 0xAC00, 0xD7A3, 2 },   { 0xF900, 0xFAFF, 2 },   { 0xFE00, 0xFE0F, 0 },
        { 0xFE30, 0xFE6F, 2 },   { 0xFF00, 0xFF60, 2 },   { 0xFFE0, 0xFFE6, 2 },   { 0x1F300, 0x1F64F, 2 },
        { 0x1F680, 0x1F6FF, 2 }, { 0x1F900, 0x1F9FF, 2 }, { 0x20000, 0x3FFFD, 2 },
    };
    size_t n = g4_char_bytes(b, i);
    uint32_t c = (unsigned char)b->data[i];
    if (n > 1) c &= 0x7Fu >> n;
    for (size_t k = 1; k < n; k++) c = c << 6 | ((unsigned char)b->data[i + k] & 0x3Fu);
    for (size_t k = 0; k < sizeof ranges / sizeof ranges[0]; k++) {
        if (c >= ranges[k].first && c <= ranges[k].last) return ranges[k].columns;
    }
    return 1;
}
static size_t g4_char_before(const g4_buf *b, size_t i)
{
    do i--;
    while (i > 0 && ((unsigned char)b->data[i] & 0xC0) == 0x80);
    return i;
}
static int g4_is_blank_at(const g4_buf *b, size_t i) { return b->data[i] == ' ' || b->data[i] == '\n'; }
static size_t g4_word_left(const g4_buf *b, size_t i)
{
    while (i > 0 && g4_is_blank_at(b, i - 1)) i--;
    while (i > 0 && !g4_is_blank_at(b, i - 1)) i--;
    return i;
}
static size_t g4_word_right(const g4_buf *b, size_t i)
{
    while (i < b->len && g4_is_blank_at(b, i)) i++;
    while (i < b->len && !g4_is_blank_at(b, i)) i++;
    return i;
}

static void g4_line_draw(const g4_line *l)
{
    struct winsize size;
    int width = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 10 ? size.ws_col : 80;
    int room = width - (int)strlen(l->prompt) - 1, before = 0, used = 0;
    size_t first = l->at, i;
    while (first > 0) { /* as much in front of the cursor as fits */
        size_t previous = g4_char_before(&l->text, first);
        int columns = g4_char_columns(&l->text, previous);
        if (before + columns > room) break;
        before += columns;
        first = previous;
    }
    g4_buf row = { 0 };
    g4_buf_fmt(&row, "\r%s", l->prompt);
    for (i = first; i < l->text.len; i += g4_char_bytes(&l->text, i)) {
        int columns = g4_char_columns(&l->text, i);
        unsigned char c = (unsigned char)l->text.data[i];
        if (used + columns > room) break;
        used += columns;
        if (c == '\n') g4_buf_str(&row, "\xE2\x86\xB5"); /* a return arrow */
        else if (c < 0x20 || c == 0x7F) g4_buf_str(&row, "?");
        else g4_buf_add(&row, l->text.data + i, g4_char_bytes(&l->text, i));
    }
    g4_buf_fmt(&row, "\033[K\r\033[%dC", (int)strlen(l->prompt) + before);
    if (!row.failed) fwrite(row.data, 1, row.len, stdout);
    fflush(stdout);
    g4_buf_free(&row);
}

static void g4_line_set(g4_line *l, const char *text)
{
    l->text.len = 0;
    g4_buf_str(&l->text, text);
    l->at = l->text.len;
}

static void g4_line_insert(g4_line *l, const char *data, size_t n)
{
    size_t tail = l->text.len - l->at;
    g4_buf_add(&l->text, data, n); /* grows; the bytes then move to their place */
    if (l->text.failed) return;
    memmove(l->text.data + l->at + n, l->text.data + l->at, tail);
    memcpy(l->text.data + l->at, data, n);
    l->at += n;
}

static void g4_line_delete(g4_line *l, size_t from, size_t to)
{
    if (from >= to) return;
    memmove(l->text.data + from, l->text.data + to, l->text.len - to + 1);
    l->text.len -= to - from;
    l->at = from;
}

static void g4_line_recall(g4_line *l, int step)
{
    int to = l->shown + step;
    if (to < 0 || to > l->history->n) return;
    if (l->shown == l->history->n) {
        l->draft.len = 0;
        g4_buf_add(&l->draft, l->text.data, l->text.len);
    }
    l->shown = to;
    g4_line_set(l, to < l->history->n ? l->history->lines[to] : l->draft.len > 0 ? l->draft.data : "");
}

/* The next byte of input, or -1 at its end; with wait >= 0 also when none comes within so many milliseconds. */
static int g4_key_byte(int wait)
{
    unsigned char c;
    struct pollfd in = { STDIN_FILENO, POLLIN, 0 };
    for (;;) {
        if (wait >= 0 && poll(&in, 1, wait) == 0) return -1;
        ssize_t n = read(STDIN_FILENO, &c, 1);
        if (n == 1) return c;
        if (n == 0 || errno != EINTR || g4_interrupted()) return -1;
    }
}

/* What follows an escape byte, as the name of what it does to the line. */
static void g4_line_escape(g4_line *l)
{
    char seq[16];
    size_t n = 0;
    int c = g4_key_byte(50);
    if (c == '\r' || c == '\n') g4_line_insert(l, "\n", 1); /* Alt-Enter */
    if (c == 'b') l->at = g4_word_left(&l->text, l->at);
    if (c == 'f') l->at = g4_word_right(&l->text, l->at);
    if (c != '[' && c != 'O') return;
    while (n + 1 < sizeof seq) { /* parameters, then one letter or ~ */
        c = g4_key_byte(50);
        if (c < 0) return;
        seq[n++] = (char)c;
        if (c >= 0x40) break;
    }
    seq[n] = '\0';
    if (strcmp(seq, "A") == 0) g4_line_recall(l, -1);
    else if (strcmp(seq, "B") == 0) g4_line_recall(l, 1);
    else if (strcmp(seq, "C") == 0) l->at += l->at < l->text.len ? g4_char_bytes(&l->text, l->at) : 0;
    else if (strcmp(seq, "D") == 0) l->at = l->at > 0 ? g4_char_before(&l->text, l->at) : 0;
    else if (strcmp(seq, "1;5C") == 0) l->at = g4_word_right(&l->text, l->at);
    else if (strcmp(seq, "1;5D") == 0) l->at = g4_word_left(&l->text, l->at);
    else if (strcmp(seq, "H") == 0 || strcmp(seq, "1~") == 0 || strcmp(seq, "7~") == 0) l->at = 0;
    else if (strcmp(seq, "F") == 0 || strcmp(seq, "4~") == 0 || strcmp(seq, "8~") == 0) l->at = l->text.len;
    else if (strcmp(seq, "3~") == 0 && l->at < l->text.len) {
        g4_line_delete(l, l->at, l->at + g4_char_bytes(&l->text, l->at));
    } else if (strcmp(seq, "200~") == 0) { /* a paste, up to ESC [ 201 ~ */
        static const char end[] = "\033[201~";
        size_t matched = 0;
        while (matched < sizeof end - 1 && (c = g4_key_byte(-1)) >= 0) {
            char byte = c == '\r' ? '\n' : (char)c;
            if (byte == end[matched]) {
                matched++;
                continue;
            }
            g4_line_insert(l, end, matched);
            matched = byte == end[0];
            if (matched == 0) g4_line_insert(l, &byte, 1);
        }
    }
}

static g4_line_end g4_line_edit(g4_line *l)
{
    struct pollfd in = { STDIN_FILENO, POLLIN, 0 };
    int ahead = poll(&in, 1, 0) > 0; /* typed while the terminal still translated: Ctrl-D comes as a zero byte */
    for (;; ahead = 0) {
        g4_line_draw(l);
        int c = g4_key_byte(-1);
        if (ahead && c == 0 && l->text.len == 0) return G4_LINE_END;
        if (c < 0) return g4_interrupted() ? G4_LINE_INTERRUPTED : G4_LINE_END;
        switch (c) {
        case '\r':
        case '\n': return G4_LINE_READ; /* a newline was typed ahead, while the terminal still translated it */
        case 'C' & 31: return G4_LINE_INTERRUPTED;
        case 'D' & 31:
            if (l->text.len == 0) return G4_LINE_END;
            if (l->at < l->text.len) g4_line_delete(l, l->at, l->at + g4_char_bytes(&l->text, l->at));
            break;
        case 'H' & 31:
        case 127:
            if (l->at > 0) g4_line_delete(l, g4_char_before(&l->text, l->at), l->at);
            break;
        case 'A' & 31: l->at = 0; break;
        case 'E' & 31: l->at = l->text.len; break;
        case 'B' & 31: l->at = l->at > 0 ? g4_char_before(&l->text, l->at) : 0; break;
        case 'F' & 31: l->at += l->at < l->text.len ? g4_char_bytes(&l->text, l->at) : 0; break;
        case 'P' & 31: g4_line_recall(l, -1); break;
        case 'N' & 31: g4_line_recall(l, 1); break;
        case 'K' & 31: g4_line_delete(l, l->at, l->text.len); break;
        case 'U' & 31: g4_line_delete(l, 0, l->at); break;
        case 'W' & 31: g4_line_delete(l, g4_word_left(&l->text, l->at), l->at); break;
        case 'L' & 31: fputs("\033[H\033[2J", stdout); break;
        case 033: g4_line_escape(l); break;
        default: {
            /* a whole character before the next drawing: lead byte, then its continuation bytes */
            char bytes[4] = { (char)c };
            size_t n = 1, want = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : c >= 0xC0 ? 2 : 1;
            if (c < 0x20 && c != '\t') break;
            while (n < want && (c = g4_key_byte(50)) >= 0) bytes[n++] = (char)c;
            g4_line_insert(l, bytes, n);
        }
        }
    }
}

/* One line of the user into out, which holds what stands in the line at first. */
static g4_line_end g4_line_read(const char *prompt, g4_history *history, g4_buf *out)
{
    struct termios before, raw;
    const char *term = getenv("TERM");
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || term == NULL || strcmp(term, "dumb") == 0 ||
        tcgetattr(STDIN_FILENO, &before) != 0) {
        int c = EOF;
        fputs(prompt, stdout);
        fflush(stdout);
        out->len = 0;
        for (size_t n = 0;; n++) {
            c = g4_key_byte(-1);
            if (c < 0 && n == 0) return g4_interrupted() ? G4_LINE_INTERRUPTED : G4_LINE_END;
            if (c < 0 || c == '\n') return G4_LINE_READ;
            char byte = (char)c;
            g4_buf_add(out, &byte, 1);
        }
    }
    raw = before;
    raw.c_iflag &= ~(tcflag_t)(ICRNL | IXON | INPCK | ISTRIP);
    raw.c_lflag &= ~(tcflag_t)(ECHO | ICANON | IEXTEN | ISIG);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    fputs("\033[?2004h", stdout); /* pastes come in brackets */
    g4_line l = { .prompt = prompt, .text = *out, .at = out->len, .history = history, .shown = history->n };
    g4_line_end end = g4_line_edit(&l);
    l.at = l.text.len;
    g4_line_draw(&l);
    fputs("\033[?2004l\n", stdout);
    fflush(stdout);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
    g4_buf_free(&l.draft);
    *out = l.text;
    if (out->failed) return G4_LINE_END;
    if (end == G4_LINE_READ && out->len > 0) g4_history_add(history, out->data);
    return end;
}

/* ---- 6. Answers: what goes out, raw text ------------------------------------------------------------ */

/* One answer on its way to the user. */
typedef struct {
    const g4_args *args;
    g4_engine *engine;
    g4_response *reply;  /* of a chat: takes thoughts, text and calls apart; NULL for raw text */
    g4_buf text;       /* the answer so far */
    g4_buf held;       /* of a chat: the end of it that may be the start of a stop string */
    g4_buf logprobs;   /* members of the JSON list, or lines for stderr */
    int to_terminal;
    int in_thought;    /* a thought is being shown on stderr */
    int called;        /* a call was shown, on a line of its own */
    int stopped;       /* a stop string of a chat was found */
    int failed;        /* standard output took no more: errno */
} g4_writer;

static void g4_writer_free(g4_writer *w)
{
    g4_response_close(w->reply);
    g4_buf_free(&w->text);
    g4_buf_free(&w->held);
    g4_buf_free(&w->logprobs);
}

/* Text of the model to a stream. A terminal gets no control characters but newline and tab: a model must not be able to
 * drive it. */
static void g4_show(FILE *f, int to_terminal, const char *text, size_t len)
{
    if (!to_terminal) fwrite(text, 1, len, f);
    for (size_t i = 0; to_terminal && i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        fputc((c < 0x20 && c != '\n' && c != '\t') || c == 0x7F ? '?' : c, f);
    }
}

static void g4_emit(g4_writer *w, const char *text, size_t len)
{
    g4_buf_add(&w->text, text, len);
    if (w->args->json) return;
    errno = 0;
    g4_show(stdout, w->to_terminal, text, len);
    if (fflush(stdout) != 0 || ferror(stdout)) w->failed = errno != 0 ? errno : EIO;
}

static void g4_quote_token(const g4_engine *e, g4_token id, g4_buf *b)
{
    char bytes[256];
    g4_json_quote(b, bytes, g4_token_bytes(e, id, 0, bytes));
}

static void g4_note_logprobs(g4_writer *w, const g4_output *o)
{
    g4_buf *b = &w->logprobs;
    if (w->args->json) {
        g4_buf_fmt(b, "%s{\"id\":%d,\"token\":", b->len > 0 ? "," : "", (int)o->token);
        g4_quote_token(w->engine, o->token, b);
        g4_buf_fmt(b, ",\"logprob\":%.6g,\"top\":[", (double)o->logprob);
        for (int i = 0; i < o->n_top; i++) {
            g4_buf_fmt(b, "%s{\"id\":%d,\"token\":", i > 0 ? "," : "", (int)o->top[i].token);
            g4_quote_token(w->engine, o->top[i].token, b);
            g4_buf_fmt(b, ",\"logprob\":%.6g}", (double)o->top[i].logprob);
        }
        g4_buf_str(b, "]}");
    } else {
        g4_buf_fmt(b, "%9.4f %6d ", (double)o->logprob, (int)o->token);
        g4_quote_token(w->engine, o->token, b);
        for (int i = 0; i < o->n_top; i++) {
            g4_buf_str(b, i == 0 ? "  of " : ", ");
            g4_quote_token(w->engine, o->top[i].token, b);
            g4_buf_fmt(b, " %.4f", (double)o->top[i].logprob);
        }
        g4_buf_str(b, "\n");
    }
}

static int g4_on_output(void *user, const g4_output *o)
{
    g4_writer *w = user;
    int stop = 0;
    if (w->args->logprobs >= 0) g4_note_logprobs(w, o);
    if (w->reply != NULL) stop = g4_response_push(w->reply, o->token);
    else g4_emit(w, o->text, o->text_len);
    return stop || w->failed || g4_interrupted();
}

/* What the model recommends, changed by what the command line gives. */
static g4_sampling g4_sampling_of(const g4_args *a, const g4_engine *e)
{
    g4_sampling s;
    g4_sampling_recommended(e, &s);
    if (!isnan(a->temperature)) s.temperature = (float)a->temperature;
    if (a->top_k >= 0) s.top_k = a->top_k;
    if (!isnan(a->top_p)) s.top_p = (float)a->top_p;
    if (!isnan(a->min_p)) s.min_p = (float)a->min_p;
    if (!isnan(a->repeat_penalty)) s.repeat_penalty = (float)a->repeat_penalty;
    if (!isnan(a->presence_penalty)) s.presence_penalty = (float)a->presence_penalty;
    if (!isnan(a->frequency_penalty)) s.frequency_penalty = (float)a->frequency_penalty;
    if (!isnan(a->seed)) s.seed = (uint64_t)a->seed;
    s.bias = a->bias;
    s.n_bias = a->n_bias;
    return s;
}

/* Figures of one answer, for the line on stderr and for --json. */
typedef struct {
    int prompt_tokens, reused;
    double prompt_seconds;
    g4_result result;
    const char *finish; /* why it ended */
} g4_figures;

/* Generate into w. -n 0 reads the prompt and generates nothing. The stop strings of a chat count in its text, not in
 * thoughts and calls, so they are looked for there. */
static int g4_generate(g4_writer *w, g4_session *s, const g4_constraint *constraint, g4_figures *f)
{
    const g4_args *a = w->args;
    g4_sampling sampling = g4_sampling_of(a, w->engine);
    g4_generate_options opt = { .sampling = &sampling,
                                .max_tokens = a->max_tokens > 0 ? a->max_tokens : 0,
                                .stop = a->stop,
                                .n_stop = w->reply == NULL ? a->n_stop : 0,
                                .no_guard = a->no_guard || w->reply == NULL,
                                .no_lookup = a->no_lookup,
                                .want_logprobs = a->logprobs >= 0,
                                .n_top = a->logprobs > 0 ? a->logprobs : 0,
                                .constraint = constraint,
                                .output = g4_on_output,
                                .user = w };
    g4_error err;
    f->result = (g4_result){ .stop = G4_STOP_MAX_TOKENS, .stop_token = -1 };
    if (a->max_tokens != 0 && g4_session_generate(s, &opt, &f->result, &err) != G4_OK) return g4_failed(&err);
    f->finish = g4_stop_name(w->stopped ? G4_STOP_STRING : f->result.stop);
    return G4_EXIT_DONE;
}

/* What follows the text of an answer: its end on stdout, log-probabilities, warnings and figures on stderr; or all of
 * it as one JSON object. `extra` holds further members of that object, each with a comma in front. */
static int g4_answer_end(g4_writer *w, const g4_figures *f, const char *extra)
{
    const g4_args *a = w->args;
    int n = f->result.n_tokens, status = G4_EXIT_DONE;
    if (a->json) {
        g4_buf b = { 0 };
        g4_buf_str(&b, "{\"role\":\"assistant\",\"content\":");
        g4_json_quote(&b, w->text.data, w->text.len);
        g4_buf_fmt(&b, "%s,\"finish_reason\":\"%s\"", extra, f->finish);
        g4_buf_fmt(
            &b, ",\"usage\":{\"prompt_tokens\":%d,\"cached_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d}",
            f->prompt_tokens, f->reused, n, f->prompt_tokens + n);
        g4_buf_fmt(&b, ",\"seconds\":{\"prompt\":%.4f,\"answer\":%.4f}", f->prompt_seconds, f->result.seconds);
        if (a->logprobs >= 0) g4_buf_fmt(&b, ",\"logprobs\":[%s]", w->logprobs.len > 0 ? w->logprobs.data : "");
        g4_buf_str(&b, "}\n");
        status = g4_print_buf(&b);
        g4_buf_free(&b);
    } else {
        int open = w->text.len == 0 ? !w->called : w->text.data[w->text.len - 1] != '\n';
        if (open) putchar('\n');
        if (fflush(stdout) != 0 || w->failed) {
            status =
                g4_say(G4_EXIT_FAILED, "cannot write standard output: %s", strerror(w->failed ? w->failed : errno));
        }
        if (w->logprobs.len > 0) fputs(w->logprobs.data, stderr);
    }
    if (f->result.stop == G4_STOP_CONTEXT) g4_say(0, "the context is full; -c N gives more room");
    if (f->result.stop == G4_STOP_REPEAT)
        g4_say(0, "the answer repeated itself and was ended; --no-guard lets it go on");
    if (!a->quiet && !a->json) {
        g4_say(0, "prompt %d tokens, %d of them reused, %.1f/s; answer %d tokens, %.1f/s", f->prompt_tokens, f->reused,
               g4_rate(f->prompt_tokens - f->reused, f->prompt_seconds), n, g4_rate(n, f->result.seconds));
    }
    return status;
}

/* ---- 7. Conversations ------------------------------------------------------------------------------- */

typedef struct { /* a part of a message and all it points to */
    g4_part_kind kind;
    g4_buf text, name, id; /* text: of a medium, its path */
    int budget;            /* soft tokens of a picture or of a frame, 0: the default */
    int loaded;
    g4_image image;
    g4_audio audio;
    g4_video video;
} g4_talk_part;

typedef struct {
    g4_role role;
    g4_talk_part *parts;
    int n;
} g4_talk_message;

typedef struct { /* an engine, a session and, for a chat, what was said */
    g4_args *args;
    g4_engine *engine;
    g4_session *session;
    g4_engine_info info;
    g4_meter meter;
    g4_loader loader;
    int raw, thinking, chats; /* chats: on a terminal, the user can be asked */
    g4_buf tools, document;   /* of --tools, of --messages */
    g4_guide_options guide;
    g4_talk_message *messages;
    int n;
    g4_talk_part *pending; /* media for the next message */
    int n_pending;
    g4_figures last;
} g4_talk;

static g4_media_options g4_media_setup(const g4_args *a, int hears)
{
    return (g4_media_options){ .ffmpeg = a->ffmpeg, .n_frames = a->frames > 0 ? a->frames : 0,
                               .fps = isnan(a->fps) ? 0 : a->fps, .want_sound = hears && !a->no_video_audio };
}

static void g4_parts_free(const g4_talk *t, g4_talk_part *parts, int n)
{
    g4_media_options media = g4_media_setup(t->args, 0);
    for (int i = 0; i < n; i++) {
        g4_talk_part *p = &parts[i];
        g4_buf_free(&p->text);
        g4_buf_free(&p->name);
        g4_buf_free(&p->id);
        if (p->loaded && p->kind == G4_PART_IMAGE) g4_image_free(&p->image, &media);
        if (p->loaded && p->kind == G4_PART_AUDIO) g4_audio_free(&p->audio, &media);
        if (p->loaded && p->kind == G4_PART_VIDEO) g4_video_free(&p->video, &media);
    }
    g4_free(NULL, parts);
}

static void g4_talk_cut(g4_talk *t, int n) /* forget the messages from n on */
{
    while (t->n > n) {
        t->n--;
        g4_parts_free(t, t->messages[t->n].parts, t->messages[t->n].n);
    }
}

static g4_talk_part *g4_part_add(g4_talk_part **parts, int *n, g4_part_kind kind)
{
    g4_talk_part *grown = g4_realloc(NULL, *parts, (size_t)*n + 1, sizeof *grown);
    if (grown == NULL) return NULL;
    *parts = grown;
    grown[*n].kind = kind;
    return &grown[(*n)++];
}

/* Takes over the parts, also when it fails. */
static int g4_message_add(g4_talk *t, g4_role role, g4_talk_part *parts, int n)
{
    g4_talk_message *grown = g4_realloc(NULL, t->messages, (size_t)t->n + 1, sizeof *grown);
    int failed = grown == NULL || (parts == NULL && n > 0);
    for (int i = 0; i < n && parts != NULL; i++)
        failed |= parts[i].text.failed || parts[i].name.failed || parts[i].id.failed;
    if (grown != NULL) t->messages = grown;
    if (failed) {
        g4_parts_free(t, parts, parts == NULL ? 0 : n);
        return g4_say(G4_EXIT_FAILED, "no memory for a message");
    }
    t->messages[t->n++] = (g4_talk_message){ role, parts, n };
    return G4_EXIT_DONE;
}

static int g4_message_add_text(g4_talk *t, g4_role role, const char *text, size_t len)
{
    int n = 0;
    g4_talk_part *parts = NULL, *p = g4_part_add(&parts, &n, G4_PART_TEXT);
    if (p == NULL) return g4_say(G4_EXIT_FAILED, "no memory for a message");
    g4_buf_add(&p->text, text, len);
    return g4_message_add(t, role, parts, n);
}

static int g4_part_load(const g4_talk *t, g4_talk_part *p)
{
    g4_media_options media = g4_media_setup(t->args, t->info.has_audio);
    g4_error err;
    g4_status result = G4_OK;
    if (p->loaded || p->kind < G4_PART_IMAGE || p->kind > G4_PART_VIDEO) return G4_EXIT_DONE;
    const char *path = p->text.len > 0 ? p->text.data : "";
    if (p->kind == G4_PART_IMAGE) result = g4_image_load(&p->image, path, &media, &err);
    if (p->kind == G4_PART_AUDIO) result = g4_audio_load(&p->audio, path, &media, &err);
    if (p->kind == G4_PART_VIDEO) result = g4_video_load(&p->video, path, &media, &err);
    if (result != G4_OK) return g4_failed(&err);
    p->image.max_tokens = p->budget;
    for (int i = 0; p->kind == G4_PART_VIDEO && i < p->video.n_frames; i++) {
        ((g4_image *)p->video.frames)[i].max_tokens = p->budget; /* ours: it was just loaded */
    }
    p->loaded = 1;
    return G4_EXIT_DONE;
}

/* The media of --messages: paths, or data in the document. What is loaded belongs to t, as a message of its own. */
static int g4_talk_load_media(g4_talk *t, g4_chat *chat)
{
    g4_media_options media = g4_media_setup(t->args, t->info.has_audio);
    g4_error err;
    int n = 0, n_media = g4_chat_n_media(chat), status = G4_EXIT_DONE;
    g4_talk_part *parts = g4_alloc(NULL, (size_t)n_media + 1, sizeof *parts);
    if (parts == NULL) return g4_say(G4_EXIT_FAILED, "no memory for the media");
    for (int i = 0; status == G4_EXIT_DONE && i < n_media; i++) {
        g4_chat_medium m;
        g4_talk_part *p = &parts[n];
        g4_status result = g4_chat_media(chat, i, &m, &err);
        const char *source = result == G4_OK ? m.source : NULL;
        if (result != G4_OK) return g4_parts_free(t, parts, n), g4_failed(&err);
        p->kind = m.kind;
        p->budget = m.kind == G4_PART_IMAGE && t->args->image_tokens > 0 ? t->args->image_tokens : 0;
        n++;
        if (source != NULL && strncmp(source, "file://", 7) == 0) source += 7;
        if (source != NULL && strstr(source, "://") != NULL) {
            status = g4_say(G4_EXIT_FAILED, "%s: addresses are not fetched; give a path or data", source);
        } else if (source != NULL) {
            g4_buf_str(&p->text, source);
            status = g4_part_load(t, p);
        } else if (m.data == NULL) {
            status = g4_say(G4_EXIT_FAILED, "message %d has a medium without a path or data", m.message);
        } else {
            if (m.kind == G4_PART_IMAGE) result = g4_image_decode(&p->image, m.data, m.size, &media, &err);
            if (m.kind == G4_PART_AUDIO) result = g4_audio_decode(&p->audio, m.data, m.size, &media, &err);
            if (m.kind == G4_PART_VIDEO) result = g4_video_decode(&p->video, m.data, m.size, &media, &err);
            if (result != G4_OK) status = g4_failed(&err);
            p->loaded = result == G4_OK;
            p->image.max_tokens = p->budget;
        }
        if (status != G4_EXIT_DONE) break;
        if (m.kind == G4_PART_IMAGE) result = g4_chat_set_image(chat, i, &p->image, &err);
        if (m.kind == G4_PART_AUDIO) result = g4_chat_set_audio(chat, i, &p->audio, &err);
        if (m.kind == G4_PART_VIDEO) result = g4_chat_set_video(chat, i, &p->video, &err);
        if (result != G4_OK) status = g4_failed(&err);
    }
    if (status == G4_EXIT_DONE) return g4_message_add(t, G4_ROLE_USER, parts, n);
    g4_parts_free(t, parts, n);
    return status;
}

static int g4_talk_parse_messages(g4_talk *t, g4_chat **chat)
{
    g4_chat_options opt = { .tools = t->tools.data, .tools_len = t->tools.len, .thinking = t->thinking, .openai = 1 };
    g4_error err;
    const char *json = t->document.len > 0 ? t->document.data : "";
    if (g4_chat_parse(chat, t->engine, json, t->document.len, &opt, &err) != G4_OK) {
        return g4_say(G4_EXIT_FAILED, "%s: %s", t->args->messages, err.message);
    }
    return g4_talk_load_media(t, *chat);
}

/* The conversation as the library takes it: *chat borrows from t. */
static int g4_talk_chat(g4_talk *t, g4_chat **chat)
{
    g4_chat_options opt = { .tools = t->tools.data, .tools_len = t->tools.len, .thinking = t->thinking };
    g4_error err;
    size_t n_parts = 0, k = 0;
    int status = G4_EXIT_DONE;
    for (int i = 0; i < t->n; i++) n_parts += (size_t)t->messages[i].n;
    g4_message *messages = g4_alloc(NULL, (size_t)t->n, sizeof *messages);
    g4_part *parts = g4_alloc(NULL, n_parts, sizeof *parts);
    if (messages == NULL || parts == NULL) status = g4_say(G4_EXIT_FAILED, "no memory for the conversation");
    for (int i = 0; status == G4_EXIT_DONE && i < t->n; i++) {
        messages[i] = (g4_message){ .role = t->messages[i].role, .parts = parts + k, .n_parts = t->messages[i].n };
        for (int j = 0; status == G4_EXIT_DONE && j < t->messages[i].n; j++, k++) {
            g4_talk_part *p = &t->messages[i].parts[j];
            status = g4_part_load(t, p);
            parts[k] = (g4_part){ .kind = p->kind, .text = p->text.len > 0 ? p->text.data : "", .text_len = p->text.len,
                                  .name = p->name.data, .id = p->id.data, .image = &p->image, .audio = &p->audio,
                                  .video = &p->video };
        }
    }
    if (status == G4_EXIT_DONE && g4_chat_open(chat, t->engine, messages, t->n, &opt, &err) != G4_OK)
        status = g4_failed(&err);
    g4_free(NULL, messages);
    g4_free(NULL, parts);
    return status;
}

/* A session file: magic, length of the messages (8 bytes), the messages, then what g4_session_save writes. A message is
 * its role and number of parts, a part its kind, budget and three strings, each behind its length; numbers are 4 bytes,
 * little-endian. Raw text has no messages. */
#define G4_TALK_MAGIC "G4TALK01"

static void g4_put_u32(g4_buf *b, uint64_t x)
{
    unsigned char bytes[4] = { (unsigned char)x, (unsigned char)(x >> 8), (unsigned char)(x >> 16),
                               (unsigned char)(x >> 24) };
    g4_buf_add(b, bytes, 4);
}

static int g4_talk_parse(g4_talk *t, g4_reader *r)
{
    while (r->pos < r->size && !r->bad) {
        uint32_t role = g4_read_u32(r), n_parts = g4_read_u32(r);
        g4_talk_part *parts = NULL;
        int n = 0;
        if (role > G4_ROLE_TOOL) r->bad = 1;
        for (uint32_t i = 0; i < n_parts && !r->bad; i++) {
            uint32_t kind = g4_read_u32(r), budget = g4_read_u32(r);
            if (kind > G4_PART_TOOL_RESULT || budget > INT_MAX) r->bad = 1;
            g4_talk_part *p = r->bad ? NULL : g4_part_add(&parts, &n, (g4_part_kind)kind);
            if (p == NULL) break;
            p->budget = (int)budget;
            for (g4_buf *b = &p->text; b != NULL; b = b == &p->text ? &p->name : b == &p->name ? &p->id : NULL) {
                uint32_t len = g4_read_u32(r);
                const uint8_t *bytes = g4_read_bytes(r, len);
                if (bytes != NULL && len > 0) g4_buf_add(b, bytes, len);
            }
        }
        int status = g4_message_add(t, (g4_role)role, parts, n);
        if (status != G4_EXIT_DONE) return status;
    }
    return r->bad ? g4_say(G4_EXIT_FAILED, "%s: its messages are damaged", t->args->session) : G4_EXIT_DONE;
}

static int g4_on_read(void *user, void *data, size_t size) { return fread(data, 1, size, user) != size; }

/* Open the session: from `path` when that file exists, else empty. */
static int g4_talk_open(g4_talk *t, const char *path)
{
    g4_session_options setup = g4_session_setup(t->args, &t->meter);
    t->meter.loader = &t->loader;
    g4_session *session = NULL;
    g4_error err;
    unsigned char head[16], *messages = NULL;
    uint64_t len = 0;
    int status = G4_EXIT_DONE;
    FILE *f = path != NULL ? fopen(path, "rb") : NULL;
    if (path != NULL && f == NULL && errno != ENOENT)
        return g4_say(G4_EXIT_FAILED, "cannot read %s: %s", path, strerror(errno));
    if (f == NULL)
        return g4_session_open(&t->session, t->engine, &setup, &err) == G4_OK ? G4_EXIT_DONE : g4_failed(&err);
    if (fread(head, 1, sizeof head, f) != sizeof head || memcmp(head, G4_TALK_MAGIC, 8) != 0) {
        status = g4_say(G4_EXIT_FAILED, "%s is not a session file", path);
        goto done;
    }
    for (int i = 7; i >= 0; i--) len = len << 8 | head[8 + i];
    if (len > 1u << 30) status = g4_say(G4_EXIT_FAILED, "%s is damaged", path);
    else if (len == 0 && !t->raw) status = g4_say(G4_EXIT_FAILED, "%s holds raw text: go on with --raw", path);
    else if (len > 0 && t->raw) status = g4_say(G4_EXIT_FAILED, "%s holds a chat: go on without --raw", path);
    else if ((messages = g4_alloc(NULL, (size_t)len + 1, 1)) == NULL)
        status = g4_say(G4_EXIT_FAILED, "no memory for %s", path);
    else if (fread(messages, 1, (size_t)len, f) != len) status = g4_say(G4_EXIT_FAILED, "%s is truncated", path);
    else if (g4_session_load(&session, t->engine, &setup, g4_on_read, f, &err) != G4_OK) {
        status = g4_say(G4_EXIT_FAILED, "%s: %s", path, err.message);
    }
    if (status != G4_EXIT_DONE) goto done;
    g4_reader r = { .data = messages, .size = (size_t)len };
    g4_talk_cut(t, 0);
    g4_session_close(t->session);
    t->session = session;
    status = g4_talk_parse(t, &r);
done:
    g4_free(NULL, messages);
    fclose(f);
    return status;
}

static int g4_talk_save(const g4_talk *t, const char *path)
{
    g4_out out;
    g4_error err;
    g4_buf b = { 0 };
    unsigned char head[16];
    int status = g4_out_open(&out, path);
    if (status != G4_EXIT_DONE) return status;
    for (int i = 0; i < t->n; i++) {
        g4_put_u32(&b, t->messages[i].role);
        g4_put_u32(&b, (uint64_t)t->messages[i].n);
        for (int j = 0; j < t->messages[i].n; j++) {
            const g4_talk_part *p = &t->messages[i].parts[j];
            const g4_buf *strings[3] = { &p->text, &p->name, &p->id };
            g4_put_u32(&b, p->kind);
            g4_put_u32(&b, (uint64_t)p->budget);
            for (int k = 0; k < 3; k++) {
                g4_put_u32(&b, strings[k]->len);
                g4_buf_add(&b, strings[k]->data, strings[k]->len);
            }
        }
    }
    memcpy(head, G4_TALK_MAGIC, 8);
    for (int i = 0; i < 8; i++) head[8 + i] = (unsigned char)((uint64_t)b.len >> (8 * i));
    if (b.failed) status = g4_say(G4_EXIT_FAILED, "no memory for %s", path);
    else if (g4_out_write(&out, head, sizeof head) == 0 && g4_out_write(&out, b.data, b.len) == 0 &&
             g4_session_save(t->session, g4_out_write, &out, &err) != G4_OK && !ferror(out.f)) {
        status = g4_failed(&err);
    }
    g4_buf_free(&b);
    return g4_out_close(&out, status); /* says so when a write failed */
}

/* Text of a chat's answer, up to the first stop string. What may be the start of one waits in w->held. */
static int g4_emit_until_stop(g4_writer *w, const char *text, size_t len)
{
    const g4_args *a = w->args;
    size_t keep = 0;
    if (a->n_stop == 0) {
        g4_emit(w, text, len);
        return 0;
    }
    g4_buf_add(&w->held, text, len);
    for (size_t at = 0; at < w->held.len; at++) {
        for (int i = 0; i < a->n_stop; i++) {
            size_t left = w->held.len - at, n = strlen(a->stop[i]);
            if (memcmp(w->held.data + at, a->stop[i], left < n ? left : n) != 0) continue;
            if (left >= n) {
                g4_emit(w, w->held.data, at);
                w->held.len = 0;
                w->stopped = 1;
                return 1;
            }
            keep = keep > left ? keep : left;
        }
    }
    g4_emit(w, w->held.data, w->held.len - keep);
    memmove(w->held.data, w->held.data + w->held.len - keep, keep);
    w->held.len = keep;
    return 0;
}

/* A piece of a chat's answer: text to stdout, thoughts to stderr if they are to be seen. */
static int g4_on_part(void *user, int index, const g4_part *delta)
{
    g4_writer *w = user;
    int shown = w->args->show_thoughts && !w->args->json, on_terminal = isatty(STDERR_FILENO);
    (void)index;
    if (w->in_thought && delta->kind != G4_PART_THOUGHT) {
        fputs(on_terminal ? "\033[0m\n" : "\n", stderr);
        w->in_thought = 0;
    }
    if (delta->kind == G4_PART_THOUGHT && shown) {
        if (!w->in_thought) fputs(on_terminal ? "\033[2m" : "", stderr);
        w->in_thought = 1;
        g4_show(stderr, on_terminal, delta->text, delta->text_len);
        fflush(stderr);
    }
    if (delta->kind == G4_PART_TOOL_CALL && !w->args->json) {
        FILE *f = w->args->tool_exec != NULL ? stderr : stdout;
        g4_show(f, isatty(fileno(f)), delta->name, strlen(delta->name));
        fputc(' ', f);
        g4_show(f, isatty(fileno(f)), delta->text, delta->text_len);
        fputc('\n', f);
        if (fflush(f) != 0 && f == stdout) w->failed = errno;
        w->called = 1;
    }
    return delta->kind == G4_PART_TEXT && g4_emit_until_stop(w, delta->text, delta->text_len);
}

/* Keep the answer as a message of the model; members of the --json object beyond its content go to extra. */
static int g4_talk_keep(g4_talk *t, g4_writer *w, g4_buf *extra)
{
    int n_parts = 0, n = 0, n_calls = 0;
    const g4_part *parts = g4_response_parts(w->reply, &n_parts);
    g4_talk_part *kept = NULL;
    g4_buf thoughts = { 0 }, calls = { 0 };
    for (int i = 0; i < n_parts; i++) {
        g4_talk_part *p = g4_part_add(&kept, &n, parts[i].kind);
        if (p == NULL) break;
        if (parts[i].kind == G4_PART_TEXT && w->stopped) g4_buf_add(&p->text, w->text.data, w->text.len);
        else g4_buf_add(&p->text, parts[i].text, parts[i].text_len);
        if (parts[i].name != NULL) g4_buf_str(&p->name, parts[i].name);
        if (parts[i].kind == G4_PART_THOUGHT) g4_buf_add(&thoughts, parts[i].text, parts[i].text_len);
        if (parts[i].kind == G4_PART_TOOL_CALL) {
            g4_buf_fmt(&p->id, "call_%d_%d", t->n, n_calls++);
            g4_buf_fmt(&calls, "%s{\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":", n_calls > 1 ? "," : "",
                       p->id.failed ? "" : p->id.data);
            const char *name = parts[i].name ? parts[i].name : ""; /* a call that never got to its name */
            g4_json_quote(&calls, name, strlen(name));
            g4_buf_str(&calls, ",\"arguments\":");
            g4_json_quote(&calls, parts[i].text, parts[i].text_len);
            g4_buf_str(&calls, "}}");
        }
    }
    if (thoughts.len > 0) {
        g4_buf_str(extra, ",\"reasoning\":");
        g4_json_quote(extra, thoughts.data, thoughts.len);
    }
    if (n_calls > 0) {
        g4_buf_fmt(extra, ",\"tool_calls\":[%s]", calls.failed ? "" : calls.data);
        t->last.finish = "tool_calls";
    }
    extra->failed |= thoughts.failed | calls.failed;
    g4_buf_free(&thoughts);
    g4_buf_free(&calls);
    return g4_message_add(t, G4_ROLE_MODEL, kept, n);
}

/* Run `program name` without a shell, the arguments on its standard input; what it prints is the result. */
static int g4_tool_run(const char *program, const char *name, const g4_buf *arguments, g4_buf *result)
{
    FILE *input = tmpfile(); /* a file, so that neither side waits for the other */
    int ends[2], code = 0, status = G4_EXIT_DONE;
    char block[4096];
    if (input == NULL || fwrite(arguments->data, 1, arguments->len, input) != arguments->len || fflush(input) != 0) {
        if (input != NULL) fclose(input);
        return g4_say(G4_EXIT_FAILED, "cannot hand arguments to %s: %s", program, strerror(errno));
    }
    rewind(input);
    pid_t pid = pipe(ends) == 0 ? fork() : -1;
    if (pid == 0) {
        dup2(fileno(input), STDIN_FILENO);
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        execlp(program, program, name, (char *)NULL);
        _exit(127);
    }
    fclose(input);
    if (pid < 0) return g4_say(G4_EXIT_FAILED, "cannot run %s: %s", program, strerror(errno));
    close(ends[1]);
    for (;;) {
        ssize_t n = read(ends[0], block, sizeof block);
        if (n > 0) g4_buf_add(result, block, (size_t)n);
        else if (n == 0 || errno != EINTR || g4_interrupted()) break;
    }
    close(ends[0]);
    if (g4_interrupted()) kill(pid, SIGTERM);
    while (waitpid(pid, &code, 0) < 0 && errno == EINTR) {
    }
    while (result->len > 0 && (result->data[result->len - 1] == '\n' || result->data[result->len - 1] == '\r'))
        result->len--;
    if (g4_interrupted()) return g4_interrupted();
    if (WIFEXITED(code) && WEXITSTATUS(code) == 127) status = g4_say(G4_EXIT_FAILED, "cannot run %s", program);
    else if (code != 0) g4_say(0, "%s %s failed; the model is told what it printed", program, name);
    return status;
}

/* Answer the calls of the last message: by the program, or by the user. *answered says whether there were any. */
static int g4_talk_call_tools(g4_talk *t, int *answered)
{
    const g4_args *a = t->args;
    g4_talk_part *results = NULL;
    int n = 0, status = G4_EXIT_DONE, asked = t->n - 1;
    *answered = 0;
    if (a->tool_exec == NULL && !t->chats) return status;
    for (int i = 0; status == G4_EXIT_DONE && i < t->messages[asked].n; i++) {
        const g4_talk_part *call = &t->messages[asked].parts[i];
        g4_history none = { 0 };
        g4_buf line = { 0 };
        if (call->kind != G4_PART_TOOL_CALL) continue;
        g4_talk_part *p = g4_part_add(&results, &n, G4_PART_TOOL_RESULT);
        if (p == NULL) break;
        g4_buf_add(&p->name, call->name.data, call->name.len);
        g4_buf_add(&p->id, call->id.data, call->id.len);
        if (a->tool_exec == NULL) {
            if (g4_line_read("result: ", &none, &p->text) != G4_LINE_READ) status = G4_EXIT_FAILED;
        } else {
            int run = a->yes;
            if (!run && isatty(STDIN_FILENO)) {
                fprintf(stderr, "run %s %s? [y/N] ", a->tool_exec, call->name.data);
                run = g4_line_read("", &none, &line) == G4_LINE_READ && line.len > 0 &&
                      (line.data[0] == 'y' || line.data[0] == 'Y');
            }
            if (run) status = g4_tool_run(a->tool_exec, call->name.data, &call->text, &p->text);
            else
                status = g4_say(G4_EXIT_FAILED, "%s was not run%s", a->tool_exec,
                                isatty(STDIN_FILENO) ? "" : ": it needs --yes");
        }
        g4_buf_free(&line);
        g4_history_free(&none);
    }
    if (status == G4_EXIT_DONE && n > 0) {
        *answered = 1;
        return g4_message_add(t, G4_ROLE_TOOL, results, n);
    }
    g4_parts_free(t, results, n);
    return status;
}

/* Draw what the answer points at on the last picture of the conversation. */
static int g4_talk_draw(const g4_talk *t, const g4_buf *text)
{
    static const uint8_t colours[][3] = {
        { 230, 25, 75 }, { 0, 130, 200 }, { 60, 180, 75 }, { 245, 130, 48 }, { 145, 30, 180 }
    };
    const g4_image *image = NULL;
    g4_box *boxes = NULL;
    g4_out out;
    g4_error err;
    int n = 0;
    for (int i = 0; i < t->n; i++) {
        for (int j = 0; j < t->messages[i].n; j++) {
            if (t->messages[i].parts[j].kind == G4_PART_IMAGE) image = &t->messages[i].parts[j].image;
        }
    }
    if (image == NULL) return g4_say(G4_EXIT_FAILED, "--boxes: there is no picture to draw on");
    if (g4_boxes_read(&boxes, &n, text->len > 0 ? text->data : "", text->len, image->width, image->height, NULL,
                      &err) != G4_OK) {
        return g4_failed(&err);
    }
    size_t stride = image->stride != 0 ? image->stride : 3 * (size_t)image->width;
    uint8_t *pixels = g4_alloc(NULL, stride, (size_t)image->height);
    int status =
        pixels == NULL ? g4_say(G4_EXIT_FAILED, "no memory for the picture") : g4_out_open(&out, t->args->boxes);
    if (status == G4_EXIT_DONE) {
        g4_image drawn = *image;
        memcpy(pixels, image->pixels, stride * (size_t)image->height);
        for (int i = 0; i < n; i++) {
            int margin = boxes[i].is_point ? 3 : 0; /* a point is shown as a small box */
            const int box[4] = { boxes[i].x0 - margin, boxes[i].y0 - margin, boxes[i].x1 + margin,
                                 boxes[i].y1 + margin };
            g4_draw_box(pixels, image->width, image->height, stride, box, boxes[i].label, colours[i % 5]);
        }
        drawn.pixels = pixels;
        if (g4_png_write(&drawn, g4_out_write, &out, NULL, &err) != G4_OK && !ferror(out.f)) status = g4_failed(&err);
        status = g4_out_close(&out, status);
    }
    if (status == G4_EXIT_DONE && !t->args->quiet) g4_say(0, "%d boxes drawn to %s", n, t->args->boxes);
    g4_free(NULL, pixels);
    g4_boxes_free(boxes, n, NULL);
    return status;
}

/* One answer to the conversation as it stands, added to it. An interrupted answer is kept as far as it came. When it
 * calls tools that can be answered here, *again is set and their results stand behind it. */
static int g4_talk_step(g4_talk *t, int *again)
{
    g4_writer w = { .args = t->args, .engine = t->engine, .to_terminal = isatty(STDOUT_FILENO) };
    g4_sync_counts counts;
    g4_chat *chat = NULL;
    g4_guide *guide = NULL;
    g4_buf extra = { 0 };
    g4_error err;
    double start = g4_now();
    int status = t->args->messages != NULL ? g4_talk_parse_messages(t, &chat) : g4_talk_chat(t, &chat);
    *again = 0;
    if (status == G4_EXIT_DONE && g4_guide_open(&guide, chat, &t->guide, &err) != G4_OK) status = g4_failed(&err);
    if (status == G4_EXIT_DONE && g4_session_sync_chat(t->session, chat, &counts, &err) != G4_OK)
        status = g4_failed(&err);
    g4_meter_end(&t->meter);
    if (status == G4_EXIT_DONE &&
        g4_response_open(&w.reply, t->engine, g4_chat_in_thought(chat), g4_on_part, &w, &err) != G4_OK) {
        status = g4_failed(&err);
    }
    if (status == G4_EXIT_DONE) {
        t->last =
            (g4_figures){ .prompt_tokens = counts.prompt, .reused = counts.reused, .prompt_seconds = g4_now() - start };
        status = g4_generate(&w, t->session, g4_guide_constraint(guide), &t->last);
    }
    if (status == G4_EXIT_DONE && g4_response_finish(w.reply, &err) != G4_OK) status = g4_failed(&err);
    if (status == G4_EXIT_DONE && w.held.len > 0) g4_emit(&w, w.held.data, w.held.len);
    if (w.in_thought) fputs(isatty(STDERR_FILENO) ? "\033[0m\n" : "\n", stderr);
    if (status == G4_EXIT_DONE && t->args->max_tokens != 0) {
        status = g4_talk_keep(t, &w, &extra);
        if (status == G4_EXIT_DONE && !g4_interrupted()) status = g4_talk_call_tools(t, again);
    }
    if (status == G4_EXIT_DONE && g4_interrupted() && t->args->json) status = g4_interrupted();
    if (status == G4_EXIT_DONE && extra.failed) status = g4_say(G4_EXIT_FAILED, "no memory for the answer");
    if (status == G4_EXIT_DONE && !*again) status = g4_answer_end(&w, &t->last, extra.len > 0 ? extra.data : "");
    if (status == G4_EXIT_DONE && !*again && t->args->boxes != NULL) status = g4_talk_draw(t, &w.text);
    if (status == G4_EXIT_DONE) status = g4_interrupted();
    g4_buf_free(&extra);
    g4_writer_free(&w);
    g4_guide_close(guide);
    g4_chat_close(chat);
    return status;
}

/* Let the model answer, calls and their results included, until it has said what it has to say. */
static int g4_talk_answer(g4_talk *t)
{
    enum { MAX_CALLS = 32 }; /* in a row: a model that only calls must not go on for ever */
    g4_tool_choice choice = t->guide.tool_choice;
    int again = 1, status = G4_EXIT_DONE;
    for (int i = 0; status == G4_EXIT_DONE && again; i++) {
        if (i == MAX_CALLS) status = g4_say(G4_EXIT_FAILED, "the model called tools %d times in a row", MAX_CALLS);
        if (i == MAX_CALLS) break;
        status = g4_talk_step(t, &again);
        if (choice != G4_TOOLS_NONE) t->guide.tool_choice = G4_TOOLS_AUTO; /* what was required has been called */
    }
    t->guide.tool_choice = choice;
    return status;
}

/* What guides the answers: tools, a schema or rules, the budget of thoughts. */
static int g4_talk_set_tools(g4_talk *t, const char *path)
{
    const g4_args *a = t->args;
    const char *choice = a->tool_choice != NULL ? a->tool_choice : "auto";
    g4_buf json = { 0 };
    g4_grammar *grammar = NULL;
    g4_error err;
    t->guide.tool_choice = strcmp(choice, "auto") == 0       ? G4_TOOLS_AUTO
                           : strcmp(choice, "none") == 0     ? G4_TOOLS_NONE
                           : strcmp(choice, "required") == 0 ? G4_TOOLS_REQUIRED
                                                             : G4_TOOLS_NAMED;
    t->guide.tool_name = t->guide.tool_choice == G4_TOOLS_NAMED ? choice : NULL;
    int status = g4_file_read(path, &json);
    if (status == G4_EXIT_DONE && t->guide.tool_choice != G4_TOOLS_NONE &&
        g4_grammar_from_tools(&grammar, t->engine, json.len > 0 ? json.data : "", json.len, t->guide.tool_name, &err) !=
            G4_OK) {
        status = g4_say(G4_EXIT_FAILED, "%s: %s", path, err.message);
    }
    if (status != G4_EXIT_DONE) {
        g4_buf_free(&json);
        return status;
    }
    g4_grammar_close(t->guide.tools);
    g4_buf_free(&t->tools);
    t->guide.tools = grammar;
    t->tools = json;
    return status;
}

static int g4_talk_set_guide(g4_talk *t)
{
    const g4_args *a = t->args;
    g4_buf text = { 0 };
    g4_error err;
    g4_status result = G4_OK;
    int status = a->tools != NULL ? g4_talk_set_tools(t, a->tools) : G4_EXIT_DONE;
    t->guide.think_budget = a->think > 1 ? a->think - 1 : 0;
    if (status != G4_EXIT_DONE) return status;
    if (a->json_schema != NULL) {
        int is_text = a->json_schema[strspn(a->json_schema, " \t\n")] == '{';
        if (is_text) g4_buf_str(&text, a->json_schema);
        else status = g4_file_read(a->json_schema, &text);
        if (status == G4_EXIT_DONE) {
            result =
                g4_grammar_from_schema(&t->guide.grammar, t->engine, text.len > 0 ? text.data : "", text.len, &err);
        }
        if (result != G4_OK)
            status = g4_say(G4_EXIT_FAILED, "%s: %s", is_text ? "--json-schema" : a->json_schema, err.message);
    } else if (a->grammar != NULL) {
        status = g4_file_read(a->grammar, &text);
        if (status == G4_EXIT_DONE) {
            result = g4_grammar_from_rules(&t->guide.grammar, t->engine, text.len > 0 ? text.data : "", text.len, &err);
        }
        if (result != G4_OK) status = g4_say(G4_EXIT_FAILED, "%s: %s", a->grammar, err.message);
    }
    g4_buf_free(&text);
    return status;
}

/* The user message of the command line. Texts that follow each other are one text, byte for byte. */
static int g4_talk_ask(g4_talk *t)
{
    const g4_args *a = t->args;
    g4_talk_part *parts = NULL;
    int n = 0, n_texts = 0, status = G4_EXIT_DONE;
    for (int i = 0; i < a->n_parts; i++) {
        static const g4_part_kind kinds[] = { G4_PART_TEXT, G4_PART_TEXT, G4_PART_IMAGE, G4_PART_AUDIO, G4_PART_VIDEO };
        g4_part_kind kind = kinds[a->parts[i].kind];
        int joins = kind == G4_PART_TEXT && n > 0 && parts[n - 1].kind == G4_PART_TEXT;
        g4_talk_part *p = joins ? &parts[n - 1] : g4_part_add(&parts, &n, kind);
        if (p == NULL) break;
        p->budget = a->parts[i].budget;
        n_texts += kind == G4_PART_TEXT;
        if (a->parts[i].kind == G4_ARG_FILE) status = g4_file_read(a->parts[i].value, &p->text);
        else g4_buf_str(&p->text, a->parts[i].value);
        if (status != G4_EXIT_DONE) break;
    }
    if (status == G4_EXIT_DONE && n_texts == 0) {
        g4_talk_part *p = g4_part_add(&parts, &n, G4_PART_TEXT);
        if (p != NULL) status = g4_file_read("-", &p->text);
    }
    if (status == G4_EXIT_DONE) return g4_message_add(t, G4_ROLE_USER, parts, n);
    g4_parts_free(t, parts, n);
    return status;
}

/* What a line of the user that begins with a slash does. Returns an exit status; -1 ends the chat, -2 asks for an
 * answer. */
enum { G4_CHAT_QUIT = -1, G4_CHAT_ANSWER = -2 };
typedef int (*g4_chat_fn)(g4_talk *t, const char *rest, g4_buf *line);

static int g4_chat_quit(g4_talk *t, const char *rest, g4_buf *line)
{
    (void)t, (void)rest, (void)line;
    return G4_CHAT_QUIT;
}

static int g4_chat_system(g4_talk *t, const char *rest, g4_buf *line)
{
    (void)line;
    int has = t->n > 0 && t->messages[0].role == G4_ROLE_SYSTEM;
    if (rest[0] == '\0') {
        printf("%s\n", has && t->messages[0].n > 0 && t->messages[0].parts[0].text.len > 0
                           ? t->messages[0].parts[0].text.data
                           : "(no system prompt)");
        return G4_EXIT_DONE;
    }
    int status = g4_message_add_text(t, G4_ROLE_SYSTEM, rest, strlen(rest));
    if (status != G4_EXIT_DONE) return status;
    g4_talk_message newest = t->messages[--t->n]; /* from the end to the front */
    if (has) g4_parts_free(t, t->messages[0].parts, t->messages[0].n);
    else memmove(t->messages + 1, t->messages, (size_t)t->n++ * sizeof newest);
    t->messages[0] = newest;
    return G4_EXIT_DONE;
}

static int g4_chat_think(g4_talk *t, const char *rest, g4_buf *line)
{
    (void)line;
    t->thinking = strcmp(rest, "on") == 0 ? 1 : strcmp(rest, "off") == 0 ? 0 : !t->thinking;
    printf("thinking is %s\n", t->thinking ? "on" : "off");
    return G4_EXIT_DONE;
}

static int g4_chat_attach(g4_talk *t, const char *rest, g4_part_kind kind)
{
    if (rest[0] == '\0') return g4_say(G4_EXIT_USAGE, "which file?");
    g4_talk_part *p = g4_part_add(&t->pending, &t->n_pending, kind);
    if (p == NULL) return g4_say(G4_EXIT_FAILED, "no memory");
    g4_buf_str(&p->text, rest);
    p->budget = kind == G4_PART_IMAGE && t->args->image_tokens > 0 ? t->args->image_tokens : 0;
    int status = g4_part_load(t, p); /* now, so that a wrong name is told at once */
    if (status != G4_EXIT_DONE) g4_buf_free(&t->pending[--t->n_pending].text);
    else printf("goes with your next message\n");
    return status;
}
static int g4_chat_image(g4_talk *t, const char *rest, g4_buf *line)
{
    return (void)line, g4_chat_attach(t, rest, G4_PART_IMAGE);
}
static int g4_chat_audio(g4_talk *t, const char *rest, g4_buf *line)
{
    return (void)line, g4_chat_attach(t, rest, G4_PART_AUDIO);
}
static int g4_chat_video(g4_talk *t, const char *rest, g4_buf *line)
{
    return (void)line, g4_chat_attach(t, rest, G4_PART_VIDEO);
}

static int g4_chat_tools(g4_talk *t, const char *rest, g4_buf *line)
{
    (void)line;
    if (rest[0] != '\0') return g4_talk_set_tools(t, rest);
    printf("%s\n", t->tools.len > 0 ? t->tools.data : "(no tools)");
    return G4_EXIT_DONE;
}

static int g4_chat_save(g4_talk *t, const char *rest, g4_buf *line)
{
    (void)line;
    if (rest[0] == '\0') return g4_say(G4_EXIT_USAGE, "to which file?");
    return g4_talk_save(t, rest);
}

static int g4_chat_load(g4_talk *t, const char *rest, g4_buf *line)
{
    (void)line;
    if (rest[0] == '\0') return g4_say(G4_EXIT_USAGE, "from which file?");
    if (access(rest, R_OK) != 0) return g4_say(G4_EXIT_FAILED, "cannot read %s: %s", rest, strerror(errno));
    int status = g4_talk_open(t, rest);
    if (status == G4_EXIT_DONE) printf("%d messages, %d tokens\n", t->n, g4_session_n(t->session));
    return status;
}

/* The last message of the user, or -1. */
static int g4_talk_last_user(const g4_talk *t)
{
    int i = t->n - 1;
    while (i >= 0 && t->messages[i].role != G4_ROLE_USER) i--;
    return i;
}

static int g4_chat_undo(g4_talk *t, const char *rest, g4_buf *line)
{
    (void)rest, (void)line;
    int i = g4_talk_last_user(t);
    if (i < 0) return g4_say(G4_EXIT_USAGE, "there is nothing to undo");
    g4_talk_cut(t, i);
    printf("%d messages left\n", t->n);
    return G4_EXIT_DONE;
}

/* The last message comes back into the line, to be changed and sent again; its media stay with it. */
static int g4_chat_edit(g4_talk *t, const char *rest, g4_buf *line)
{
    int i = g4_talk_last_user(t);
    if (i < 0) return g4_say(G4_EXIT_USAGE, "there is nothing to edit");
    g4_talk_message *m = &t->messages[i];
    for (int j = 0; j < m->n; j++) {
        if (m->parts[j].kind == G4_PART_TEXT) {
            if (rest[0] == '\0') g4_buf_add(line, m->parts[j].text.data, m->parts[j].text.len);
            continue;
        }
        g4_talk_part *p = g4_part_add(&t->pending, &t->n_pending, m->parts[j].kind);
        if (p == NULL) return g4_say(G4_EXIT_FAILED, "no memory");
        *p = m->parts[j]; /* moves */
        m->parts[j] = (g4_talk_part){ 0 };
    }
    g4_talk_cut(t, i);
    if (rest[0] == '\0') return G4_EXIT_DONE;
    g4_buf_str(line, rest);
    return G4_CHAT_ANSWER;
}

static int g4_chat_retry(g4_talk *t, const char *rest, g4_buf *line)
{
    (void)rest, (void)line;
    int i = g4_talk_last_user(t);
    if (i < 0) return g4_say(G4_EXIT_USAGE, "there is nothing to answer");
    g4_talk_cut(t, i + 1);
    t->args->seed = isnan(t->args->seed) ? 1 : t->args->seed + 1; /* another answer */
    return g4_talk_answer(t);
}

static int g4_chat_stats(g4_talk *t, const char *rest, g4_buf *line)
{
    (void)rest, (void)line;
    const g4_figures *f = &t->last;
    printf("%s, %s, %d threads\n", t->info.name, t->info.isa, t->info.n_threads);
    printf("%d messages, %d of %d tokens of context\n", t->n, g4_session_n(t->session), g4_session_n_ctx(t->session));
    printf("last prompt: %d tokens, %d of them reused, %.1f/s\n", f->prompt_tokens, f->reused,
           g4_rate(f->prompt_tokens - f->reused, f->prompt_seconds));
    printf("last answer: %d tokens, %.1f/s\n", f->result.n_tokens, g4_rate(f->result.n_tokens, f->result.seconds));
    return G4_EXIT_DONE;
}

static int g4_chat_help(g4_talk *t, const char *rest, g4_buf *line);
static const struct { const char *name, *rest, *help; g4_chat_fn run; } g4_chat_commands[] = {
    { "help", "", "this list", g4_chat_help },
    { "image", " FILE", "show the model a picture with your next message", g4_chat_image },
    { "audio", " FILE", "let it hear a sound", g4_chat_audio },
    { "video", " FILE", "let it see a video", g4_chat_video },
    { "system", " [TEXT]", "set the system prompt, or show it", g4_chat_system },
    { "think", " [on|off]", "let the model think before it answers", g4_chat_think },
    { "tools", " [FILE]", "functions the model may call, or show them", g4_chat_tools },
    { "retry", "", "another answer to your last message", g4_chat_retry },
    { "edit", " [TEXT]", "change your last message (in the line, or to TEXT)", g4_chat_edit },
    { "undo", "", "forget your last message and its answer", g4_chat_undo },
    { "save", " FILE", "write the chat to a file", g4_chat_save },
    { "load", " FILE", "go on with a chat from a file", g4_chat_load },
    { "stats", "", "figures of the chat and of the last answer", g4_chat_stats },
    { "quit", "", "end (also Ctrl-D)", g4_chat_quit },
};
enum { G4_N_CHAT_COMMANDS = sizeof g4_chat_commands / sizeof g4_chat_commands[0] };

static int g4_chat_help(g4_talk *t, const char *rest, g4_buf *line)
{
    (void)t, (void)rest, (void)line;
    for (int i = 0; i < G4_N_CHAT_COMMANDS; i++) {
        printf("  /%s%-*s %s\n", g4_chat_commands[i].name, 18 - (int)strlen(g4_chat_commands[i].name),
               g4_chat_commands[i].rest, g4_chat_commands[i].help);
    }
    puts("Anything else goes to the model (// for a line that begins with a slash). Alt-Enter starts a new\n"
         "line, Ctrl-C stops an answer.");
    return G4_EXIT_DONE;
}

/* A message of the user: pending media in front, then the line. */
static int g4_chat_send(g4_talk *t, const g4_buf *line)
{
    g4_talk_part *p = g4_part_add(&t->pending, &t->n_pending, G4_PART_TEXT);
    if (p == NULL) return g4_say(G4_EXIT_FAILED, "no memory for a message");
    g4_buf_add(&p->text, line->data, line->len);
    int had = t->n, status = g4_message_add(t, G4_ROLE_USER, t->pending, t->n_pending);
    t->pending = NULL;
    t->n_pending = 0;
    if (status == G4_EXIT_DONE) status = g4_talk_answer(t);
    if (status != G4_EXIT_DONE && !g4_interrupted()) g4_talk_cut(t, had); /* the question failed with its answer */
    return status;
}

static int g4_chat_command(g4_talk *t, g4_buf *line)
{
    char *name = line->data + 1, *rest = name + strcspn(name, " ");
    if (*rest != '\0') *rest++ = '\0';
    while (*rest == ' ') rest++;
    for (int i = 0; i < G4_N_CHAT_COMMANDS; i++) {
        if (strcmp(g4_chat_commands[i].name, name) != 0) continue;
        g4_buf next = { 0 };
        int status = g4_chat_commands[i].run(t, rest, &next);
        g4_buf_free(line);
        *line = next; /* what the next line begins with */
        return status;
    }
    g4_say(0, "there is no /%s; /help lists what there is", name);
    line->len = 0;
    return G4_EXIT_DONE;
}

/* The chat on a terminal: a line, an answer, until the end of input. */
static int g4_talk_chat_loop(g4_talk *t)
{
    g4_history history = { 0 };
    g4_buf line = { 0 };
    int status = G4_EXIT_DONE;
    if (!t->args->quiet) printf("%s. /help lists the commands, Ctrl-D ends.\n", t->info.name);
    while (status != G4_CHAT_QUIT) {
        g4_line_end end = g4_line_read("> ", &history, &line);
        if (end == G4_LINE_END) break;
        if (end == G4_LINE_INTERRUPTED) {
            if (g4_interrupted() && g4_signal != SIGINT) break;
            g4_signal = 0;
            line.len = 0;
            continue;
        }
        status = G4_EXIT_DONE;
        if (line.len == 0) continue;
        if (line.data[0] == '/' && !(line.len > 1 && line.data[1] == '/')) {
            status = g4_chat_command(t, &line);
            if (status != G4_CHAT_ANSWER) goto answered;
        } else if (line.data[0] == '/') { /* // stands for a slash of the text */
            memmove(line.data, line.data + 1, line.len);
            line.len--;
        }
        status = g4_chat_send(t, &line);
        line.len = 0;
    answered:
        if (g4_signal == SIGINT) g4_signal = 0; /* the answer was stopped, not the program */
        if (g4_interrupted()) break;
    }
    g4_buf_free(&line);
    g4_history_free(&history);
    return g4_interrupted();
}

/* Continue text without a template. */
static int g4_talk_raw(g4_talk *t)
{
    const g4_args *a = t->args;
    g4_writer w = { .args = a, .engine = t->engine, .to_terminal = isatty(STDOUT_FILENO) };
    g4_figures f = { 0 };
    g4_buf text = { 0 };
    g4_token *ids = NULL;
    size_t n = 0;
    g4_error err;
    if (a->n_parts == 0 && !a->quiet && isatty(STDIN_FILENO)) g4_say(0, "type the text to continue; Ctrl-D ends it");
    int status = g4_args_text(a, &text);
    if (status == G4_EXIT_DONE) status = g4_ids_of(t->engine, &text, a->specials, &ids, &n);
    if (status == G4_EXIT_DONE) status = g4_talk_open(t, a->session);
    if (status == G4_EXIT_DONE) {
        double start = g4_now();
        int had = g4_session_n(t->session), skip = had > 0; /* BOS only in front of everything */
        if ((int)n > skip && g4_session_eval(t->session, ids + skip, (int)n - skip, &err) != G4_OK)
            status = g4_failed(&err);
        g4_meter_end(&t->meter);
        f.prompt_tokens = g4_session_n(t->session);
        f.reused = had;
        f.prompt_seconds = g4_now() - start;
    }
    if (status == G4_EXIT_DONE) status = g4_generate(&w, t->session, NULL, &f);
    if (status == G4_EXIT_DONE && g4_interrupted()) {
        if (!a->json) putchar('\n');
        status = g4_interrupted();
    }
    if (status == G4_EXIT_DONE) status = g4_answer_end(&w, &f, "");
    if (status == G4_EXIT_DONE && a->session != NULL) status = g4_talk_save(t, a->session);
    g4_free(NULL, ids);
    g4_buf_free(&text);
    g4_writer_free(&w);
    return status;
}

/* The first of the given options that needs what raw text does not have, or NULL. */
static const char *g4_needs_chat(const g4_args *a)
{
    const struct { int given; const char *name;
    } options[] = {
        { a->think, "--think" },
        { a->system != NULL, "--system" },
        { a->messages != NULL, "--messages" },
        { a->tools != NULL, "--tools" },
        { a->json_schema != NULL, "--json-schema" },
        { a->grammar != NULL, "--grammar" },
        { a->boxes != NULL, "--boxes" },
    };
    for (int i = 0; i < a->n_parts; i++) {
        if (a->parts[i].kind == G4_ARG_IMAGE) return "--image";
        if (a->parts[i].kind == G4_ARG_AUDIO) return "--audio";
        if (a->parts[i].kind == G4_ARG_VIDEO) return "--video";
    }
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        if (options[i].given) return options[i].name;
    }
    return NULL;
}

/* A chat model: one question, or a conversation on the terminal. */
static int g4_talk_run(g4_talk *t)
{
    const g4_args *a = t->args;
    int has_text = a->messages != NULL;
    for (int i = 0; i < a->n_parts; i++) has_text |= a->parts[i].kind <= G4_ARG_FILE;
    t->chats = !has_text && isatty(STDIN_FILENO);
    int status = g4_talk_set_guide(t);
    if (status == G4_EXIT_DONE && a->messages != NULL) status = g4_file_read(a->messages, &t->document);
    if (status == G4_EXIT_DONE) status = g4_talk_open(t, a->session);
    if (status == G4_EXIT_DONE && a->system != NULL) status = g4_chat_system(t, a->system, NULL);
    if (status != G4_EXIT_DONE) return status;
    if (t->chats) {
        for (int i = 0; status == G4_EXIT_DONE && i < a->n_parts; i++) {
            t->args->image_tokens = a->parts[i].budget;
            status =
                g4_chat_attach(t, a->parts[i].value, (g4_part_kind)(a->parts[i].kind - G4_ARG_IMAGE + G4_PART_IMAGE));
        }
        if (status == G4_EXIT_DONE) status = g4_talk_chat_loop(t);
    } else {
        if (a->messages == NULL) status = g4_talk_ask(t);
        if (status == G4_EXIT_DONE) status = g4_talk_answer(t);
    }
    if (status == G4_EXIT_DONE && a->session != NULL) status = g4_talk_save(t, a->session);
    return status;
}

static int g4_run_answer(g4_args *a)
{
    g4_talk t = { .args = a, .thinking = a->think != 0 };
    const char *chat_option = g4_needs_chat(a);
    if (a->raw && chat_option != NULL) {
        return g4_say(G4_EXIT_USAGE, "%s belongs to the chat template, which --raw leaves out", chat_option);
    }
    if (a->json_schema != NULL && a->grammar != NULL)
        return g4_say(G4_EXIT_USAGE, "give --json-schema or --grammar, not both");
    if (a->tool_choice != NULL && a->tools == NULL) return g4_say(G4_EXIT_USAGE, "--tool-choice needs --tools");
    if (a->messages != NULL && (a->n_parts > 0 || a->session != NULL || a->system != NULL || a->tool_exec != NULL)) {
        return g4_say(G4_EXIT_USAGE,
                      "--messages holds the whole conversation: no prompt, --system, --session or --tool-exec");
    }
    int status = g4_open_engine(&t.engine, a);
    if (status != G4_EXIT_DONE) return status;
    g4_engine_get_info(t.engine, &t.info);
    t.raw = a->raw || !t.info.is_chat;
    for (int i = 0; status == G4_EXIT_DONE && i < a->n_bias; i++) {
        if (a->bias[i].token >= t.info.n_vocab) {
            status = g4_say(G4_EXIT_FAILED, "--logit-bias: token id %d is out of range: the vocabulary ends at %d",
                            (int)a->bias[i].token, t.info.n_vocab - 1);
        }
    }
    if (status == G4_EXIT_DONE && t.raw && chat_option != NULL) {
        status =
            g4_say(G4_EXIT_FAILED, "%s is a base model: it has no chat template, so no %s", t.info.name, chat_option);
    }
    if (status == G4_EXIT_DONE && !t.raw && a->specials) status = g4_say(G4_EXIT_USAGE, "--specials needs --raw");
    if (status == G4_EXIT_DONE && t.raw && !a->raw && !a->quiet) {
        g4_say(0, "%s is a base model: it continues the text, as with --raw", t.info.name);
    }
    if (status == G4_EXIT_DONE) {
        g4_loader_start(&t.loader, t.engine, !a->quiet && a->n_parts > 0 && isatty(STDERR_FILENO));
        status = t.raw ? g4_talk_raw(&t) : g4_talk_run(&t);
    }
    g4_loader_end(&t.loader);
    g4_talk_cut(&t, 0);
    g4_free(NULL, t.messages);
    g4_parts_free(&t, t.pending, t.n_pending);
    g4_grammar_close(t.guide.grammar);
    g4_grammar_close(t.guide.tools);
    g4_buf_free(&t.tools);
    g4_buf_free(&t.document);
    g4_session_close(t.session);
    g4_engine_close(t.engine);
    return status;
}

/* ---- 8. Commands below the chat template: tokens, logits, perplexity, media, info, bench ------------ */

static int g4_run_tokenize(g4_args *a)
{
    g4_engine *e = NULL;
    g4_buf text = { 0 }, line = { 0 };
    g4_token *ids = NULL;
    size_t n = 0;
    int status = g4_open_engine(&e, a);
    if (status == G4_EXIT_DONE) status = g4_args_text(a, &text);
    if (status == G4_EXIT_DONE) status = g4_ids_of(e, &text, a->specials, &ids, &n);
    if (status == G4_EXIT_DONE) {
        for (size_t i = a->bos ? 0 : 1; i < n; i++) g4_buf_fmt(&line, "%d%s", (int)ids[i], i + 1 < n ? " " : "");
        g4_buf_str(&line, "\n");
        status = g4_print_buf(&line);
    }
    g4_free(NULL, ids);
    g4_buf_free(&line);
    g4_buf_free(&text);
    g4_engine_close(e);
    return status;
}

static int g4_run_detokenize(g4_args *a)
{
    g4_engine *e = NULL;
    g4_engine_info info;
    g4_buf list = { 0 }, text = { 0 };
    g4_token *ids = NULL;
    size_t n = 0;
    int status = g4_open_engine(&e, a);
    if (status == G4_EXIT_DONE) status = g4_args_text(a, &list);
    if (status == G4_EXIT_DONE) {
        g4_engine_get_info(e, &info);
        status = g4_parse_ids(list.data, list.len, info.n_vocab, &ids, &n);
    }
    if (status == G4_EXIT_DONE) {
        char bytes[256];
        for (size_t i = 0; i < n; i++) g4_buf_add(&text, bytes, g4_token_bytes(e, ids[i], a->skip_specials, bytes));
        status = g4_print_buf(&text);
    }
    g4_free(NULL, ids);
    g4_buf_free(&text);
    g4_buf_free(&list);
    g4_engine_close(e);
    return status;
}

/* The soft tokens of one file, in order: of a picture one piece, of a sound one for each block, of a video one for each
 * frame (its sound is left out). */
typedef struct {
    g4_soft **soft;
    int n, next;    /* next: the first one not used yet */
    double seconds; /* of encoding, without reading the file */
} g4_softs;

static void g4_softs_free(g4_engine *e, g4_softs *s)
{
    for (int i = 0; i < s->n; i++) g4_soft_close(e, s->soft[i]);
    g4_free(NULL, s->soft);
}

static int g4_softs_add(g4_softs *s, g4_soft *soft, g4_engine *e)
{
    g4_soft **grown = g4_realloc(NULL, s->soft, (size_t)s->n + 1, sizeof *grown);
    if (grown == NULL) {
        g4_soft_close(e, soft);
        return g4_say(G4_EXIT_FAILED, "no memory for soft tokens");
    }
    s->soft = grown;
    grown[s->n++] = soft;
    return g4_interrupted();
}

static int g4_softs_encode(g4_softs *s, g4_engine *e, const g4_args *a, const g4_arg *file)
{
    g4_media_options media = g4_media_setup(a, 0);
    g4_image image = { 0 };
    g4_audio audio = { 0 };
    g4_video video = { 0 };
    g4_soft *soft;
    g4_error err;
    double start;
    int status = G4_EXIT_DONE;
    if (file->kind == G4_ARG_IMAGE) {
        if (g4_image_load(&image, file->value, &media, &err) != G4_OK) return g4_failed(&err);
        start = g4_now();
        image.max_tokens = file->budget;
        if (g4_image_encode(&soft, e, &image, &err) == G4_OK) status = g4_softs_add(s, soft, e);
        else status = g4_failed(&err);
        g4_image_free(&image, &media);
    } else if (file->kind == G4_ARG_AUDIO) {
        if (g4_audio_load(&audio, file->value, &media, &err) != G4_OK) return g4_failed(&err);
        start = g4_now();
        size_t from = 0, n = g4_audio_block(&audio, 0);
        if (n == 0) status = g4_say(G4_EXIT_FAILED, "%s: there is no sound in it", file->value);
        for (; status == G4_EXIT_DONE && n > 0; from += n, n = g4_audio_block(&audio, from)) {
            g4_audio block = { .samples = audio.samples + from, .n_samples = n };
            if (g4_audio_encode(&soft, e, &block, &err) == G4_OK) status = g4_softs_add(s, soft, e);
            else status = g4_failed(&err);
            if (status == G4_EXIT_DONE && from + n < audio.n_samples && !a->quiet) {
                g4_say(0, "%s: %.1f s are more than the 30 s of a block: cut at %.2f s, where it is quiet", file->value,
                       (double)audio.n_samples / 16000, (double)(from + n) / 16000);
            }
        }
        g4_audio_free(&audio, &media);
    } else {
        if (g4_video_load(&video, file->value, &media, &err) != G4_OK) return g4_failed(&err);
        start = g4_now();
        for (int i = 0; status == G4_EXIT_DONE && i < video.n_frames; i++) {
            g4_image frame = video.frames[i];
            frame.max_tokens = file->budget;
            if (g4_frame_encode(&soft, e, &frame, &err) == G4_OK) status = g4_softs_add(s, soft, e);
            else status = g4_failed(&err);
        }
        g4_video_free(&video, &media);
    }
    s->seconds = g4_now() - start;
    return status;
}

/* A prompt of `logits`: ids, with placeholders expanded to the soft tokens of the media options, in order. One picture
 * or sound placeholder stands for all of its file, one video placeholder for a frame. Without any media option a
 * placeholder is left to the engine, which reads it as pad. */
typedef struct {
    g4_token *ids;
    g4_run *runs;
    size_t n;
    int n_runs;
    g4_softs *files; /* one for each media option */
} g4_expanded;

static void g4_expanded_free(g4_engine *e, g4_expanded *x, int n_files)
{
    for (int i = 0; i < n_files && x->files != NULL; i++) g4_softs_free(e, &x->files[i]);
    g4_free(NULL, x->files);
    g4_free(NULL, x->ids);
    g4_free(NULL, x->runs);
}

/* The file whose soft tokens this placeholder takes, -1 when there is none left. */
static int g4_expand_file(const g4_args *a, const g4_expanded *x, g4_arg_kind kind)
{
    for (int i = 0; i < a->n_parts; i++) {
        if (a->parts[i].kind == kind && x->files[i].next < x->files[i].n) return i;
    }
    return -1;
}

static int g4_expand(g4_expanded *x, g4_engine *e, const g4_args *a, const g4_token *ids, size_t n)
{
    const g4_config *c = g4_engine_config(e);
    const struct { g4_token token; g4_arg_kind kind; const char *name; } media[] = {
        { (g4_token)c->image_token, G4_ARG_IMAGE, "image" },
        { (g4_token)c->audio_token, G4_ARG_AUDIO, "audio" },
        { (g4_token)c->video_token, G4_ARG_VIDEO, "video" },
    };
    size_t room = n, pieces = 0;
    x->files = g4_alloc(NULL, (size_t)a->n_parts + 1, sizeof *x->files);
    if (x->files == NULL) return g4_say(G4_EXIT_FAILED, "no memory for the prompt");
    for (int i = 0; i < a->n_parts; i++) {
        int status = g4_softs_encode(&x->files[i], e, a, &a->parts[i]);
        if (status != G4_EXIT_DONE) return status;
        for (int j = 0; j < x->files[i].n; j++) room += (size_t)g4_soft_n(x->files[i].soft[j]);
        pieces += (size_t)x->files[i].n;
    }
    x->ids = g4_alloc(NULL, room, sizeof *x->ids);
    x->runs = g4_alloc(NULL, pieces + 1, sizeof *x->runs);
    if (x->ids == NULL || x->runs == NULL) return g4_say(G4_EXIT_FAILED, "no memory for the prompt");
    for (size_t i = 0; i < n; i++) {
        int k = a->n_parts > 0 ? 0 : 3;
        while (k < 3 && (media[k].token != ids[i] || media[k].token == 0)) k++;
        if (k == 3) {
            x->ids[x->n++] = ids[i];
            continue;
        }
        int file = g4_expand_file(a, x, media[k].kind);
        if (file < 0)
            return g4_say(G4_EXIT_FAILED, "--tokens has more %s placeholders than there are files", media[k].name);
        g4_softs *s = &x->files[file];
        int end = media[k].kind == G4_ARG_VIDEO ? s->next + 1 : s->n;
        for (; s->next < end; s->next++) {
            x->runs[x->n_runs++] = (g4_run){ (int)x->n, s->soft[s->next] };
            for (int j = 0; j < g4_soft_n(s->soft[s->next]); j++) x->ids[x->n++] = g4_soft_token(s->soft[s->next]);
        }
    }
    for (int i = 0; i < a->n_parts; i++) {
        if (x->files[i].next < x->files[i].n) {
            return g4_say(G4_EXIT_FAILED, "--tokens has no placeholder for %s%s",
                          x->files[i].next > 0 ? "all frames of " : "", a->parts[i].value);
        }
    }
    return x->n <= INT_MAX ? G4_EXIT_DONE : g4_say(G4_EXIT_FAILED, "the prompt is too long");
}

/* One JSON object on stdin, the prompt on stdout, byte for byte and nothing else. */
static int g4_run_render(g4_args *a)
{
    g4_engine *e = NULL;
    g4_chat *chat = NULL;
    g4_chat_options opt = { .template_name = a->template_name };
    g4_buf json = { 0 }, text = { 0 };
    g4_error err;
    int status = a->model == NULL && a->template_name != NULL ? G4_EXIT_DONE : g4_open_engine(&e, a);
    if (status == G4_EXIT_DONE) status = g4_args_text(a, &json);
    if (status == G4_EXIT_DONE &&
        g4_chat_parse(&chat, e, json.len > 0 ? json.data : "", json.len, &opt, &err) != G4_OK) {
        status = g4_failed(&err);
    }
    if (status == G4_EXIT_DONE) {
        size_t len;
        const char *prompt = g4_chat_text(chat, &len);
        g4_buf_add(&text, prompt, len);
        status = g4_print_buf(&text);
    }
    g4_buf_free(&json);
    g4_buf_free(&text);
    g4_chat_close(chat);
    g4_engine_close(e);
    return status;
}

typedef struct { /* rows of logits on their way to a file */
    g4_out *out;
    size_t bytes; /* of one row */
} g4_row_writer;

static int g4_on_row(void *user, int index, const float *logits)
{
    g4_row_writer *w = user;
    (void)index;
    return g4_out_write(w->out, logits, w->bytes);
}

/* The ids of --tokens: a list, or @FILE with one. */
static int g4_args_ids(const g4_args *a, int n_vocab, g4_token **ids, size_t *n)
{
    g4_buf list = { 0 };
    int status = G4_EXIT_DONE;
    if (a->tokens[0] == '@') status = g4_file_read(a->tokens + 1, &list);
    else g4_buf_str(&list, a->tokens);
    if (status == G4_EXIT_DONE) status = g4_parse_ids(list.data, list.len, n_vocab, ids, n);
    if (status == G4_EXIT_DONE && *n == 0) status = g4_say(G4_EXIT_USAGE, "--tokens holds no token id");
    if (status == G4_EXIT_DONE && *n > INT_MAX) status = g4_say(G4_EXIT_FAILED, "--tokens holds too many token ids");
    g4_buf_free(&list);
    return status;
}

static int g4_run_logits(g4_args *a)
{
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_engine_info info;
    g4_error err;
    g4_meter meter;
    g4_out out = { 0 };
    g4_token *ids = NULL;
    g4_expanded x = { 0 };
    size_t n = 0;
    if (a->tokens == NULL) return g4_say(G4_EXIT_USAGE, "logits needs --tokens LIST or --tokens @FILE");
    if (a->output == NULL) return g4_say(G4_EXIT_USAGE, "logits needs -o FILE");
    int status = g4_open_engine(&e, a);
    if (status != G4_EXIT_DONE) return status;
    g4_engine_get_info(e, &info);
    g4_session_options setup = g4_session_setup(a, &meter);
    status = g4_args_ids(a, info.n_vocab, &ids, &n);
    if (status == G4_EXIT_DONE) status = g4_expand(&x, e, a, ids, n);
    if (status == G4_EXIT_DONE && g4_session_open(&s, e, &setup, &err) != G4_OK) status = g4_failed(&err);
    if (status == G4_EXIT_DONE) status = g4_out_open(&out, a->output);
    if (status == G4_EXIT_DONE) {
        g4_row_writer writer = { &out, (size_t)info.n_vocab * sizeof(float) };
        g4_prompt prompt = { .tokens = x.ids, .n = (int)x.n, .media = x.runs, .n_media = x.n_runs };
        g4_status result = a->all ? g4_session_eval_all(s, &prompt, g4_on_row, &writer, &err)
                                  : g4_session_eval_prompt(s, &prompt, &err);
        g4_meter_end(&meter);
        if (result == G4_ERR_CANCELED && !g4_interrupted() && ferror(out.f)) result = G4_OK; /* closing says why */
        if (result != G4_OK) status = g4_failed(&err);
        else if (!a->all) (void)g4_on_row(&writer, 0, g4_session_logits(s));
    }
    status = g4_out_close(&out, status);
    if (status == G4_EXIT_DONE) fprintf(stderr, "shape %d %d\n", a->all ? (int)x.n : 1, info.n_vocab);
    g4_free(NULL, ids);
    g4_session_close(s);
    g4_expanded_free(e, &x, a->n_parts);
    g4_engine_close(e);
    return status;
}

static int g4_run_encode(g4_args *a)
{
    g4_engine *e = NULL;
    g4_engine_info info;
    g4_softs softs = { 0 };
    g4_out out = { 0 };
    long n = 0;
    if (a->n_parts != 1) return g4_say(G4_EXIT_USAGE, "encode needs one of --image, --audio and --video");
    if (a->output == NULL) return g4_say(G4_EXIT_USAGE, "encode needs -o FILE");
    if (a->json && strcmp(a->output, "-") == 0)
        return g4_say(G4_EXIT_USAGE, "--json is standard output: give -o a file, or /dev/null");
    int status = g4_open_engine(&e, a);
    if (status != G4_EXIT_DONE) return status;
    g4_engine_get_info(e, &info);
    status = g4_softs_encode(&softs, e, a, &a->parts[0]);
    if (status == G4_EXIT_DONE) status = g4_out_open(&out, a->output);
    for (int i = 0; status == G4_EXIT_DONE && i < softs.n; i++) {
        int rows = g4_soft_n(softs.soft[i]);
        n += rows;
        if (g4_out_write(&out, g4_soft_rows(softs.soft[i]), (size_t)rows * (size_t)info.hidden * sizeof(float)) != 0)
            break;
    }
    status = g4_out_close(&out, status);
    if (status == G4_EXIT_DONE) fprintf(stderr, "shape %ld %d\n", n, info.hidden);
    if (status == G4_EXIT_DONE && a->json) printf("{\"tokens\":%ld,\"seconds\":%.4f}\n", n, softs.seconds);
    g4_softs_free(e, &softs);
    g4_engine_close(e);
    return status;
}

static int g4_run_mel(g4_args *a)
{
    g4_media_options media = g4_media_setup(a, 0);
    g4_audio audio = { 0 };
    g4_out out = { 0 };
    g4_error err;
    size_t from = 0, n;
    int frames = 0, status = G4_EXIT_DONE, wanted = a->block > 0 ? a->block : 0;
    if (a->n_parts != 1) return g4_say(G4_EXIT_USAGE, "mel needs one -f FILE");
    if (a->output == NULL) return g4_say(G4_EXIT_USAGE, "mel needs -o FILE");
    if (g4_audio_load(&audio, a->parts[0].value, &media, &err) != G4_OK) return g4_failed(&err);
    n = g4_audio_block(&audio, 0);
    int block = 0;
    for (; block < wanted && n > 0; block++) {
        from += n;
        n = g4_audio_block(&audio, from);
    }
    g4_audio piece = { .samples = audio.samples + from, .n_samples = n };
    if (n > 0) frames = g4_audio_mel(&piece, NULL);
    if (n == 0)
        status =
            g4_say(G4_EXIT_FAILED, "%s has no block %d: it ends with block %d", a->parts[0].value, wanted, block - 1);
    else if (frames <= 0)
        status = g4_say(G4_EXIT_FAILED, "%s: block %d is too short for a frame", a->parts[0].value, wanted);
    float *mel = frames > 0 ? g4_alloc(NULL, (size_t)frames, 128 * sizeof *mel) : NULL;
    if (status == G4_EXIT_DONE && mel == NULL) status = g4_say(G4_EXIT_FAILED, "no memory for the frames");
    if (status == G4_EXIT_DONE) status = g4_out_open(&out, a->output);
    if (status == G4_EXIT_DONE) {
        g4_audio_mel(&piece, mel);
        (void)g4_out_write(&out, mel, (size_t)frames * 128 * sizeof *mel);
    }
    status = g4_out_close(&out, status);
    if (status == G4_EXIT_DONE) fprintf(stderr, "shape %d 128\n", frames);
    g4_free(NULL, mel);
    g4_audio_free(&audio, &media);
    return status;
}

static int g4_run_patches(g4_args *a)
{
    enum { PATCH = 16, POOL = 3, VALUES = PATCH * PATCH * 3 };
    g4_media_options media = g4_media_setup(a, 0);
    g4_image image = { 0 };
    g4_patches patches = { 0 };
    g4_out out = { 0 };
    g4_error err;
    int status = G4_EXIT_DONE;
    if (a->n_parts != 1) return g4_say(G4_EXIT_USAGE, "patches needs one -f FILE");
    if (a->output == NULL) return g4_say(G4_EXIT_USAGE, "patches needs -o FILE");
    if (g4_image_load(&image, a->parts[0].value, &media, &err) != G4_OK) return g4_failed(&err);
    int budget = a->image_tokens > 0 ? a->image_tokens : 0;
    if (g4_image_patches(NULL, &image, budget, PATCH, POOL, &patches, &err) != G4_OK) status = g4_failed(&err);
    if (status == G4_EXIT_DONE) status = g4_out_open(&out, a->output);
    if (status == G4_EXIT_DONE) (void)g4_out_write(&out, patches.pixels, (size_t)patches.n * VALUES * sizeof(float));
    status = g4_out_close(&out, status);
    if (status == G4_EXIT_DONE) fprintf(stderr, "shape %d %d\n", patches.n, VALUES);
    g4_patches_free(NULL, &patches);
    g4_image_free(&image, &media);
    return status;
}

typedef struct {
    const g4_token *ids; /* of the text, without its BOS */
    size_t n, start;     /* start: the first token of this window, behind its BOS */
    size_t scored;       /* ids[0 .. scored) have their value */
    int n_vocab;
    float *nll;          /* (n): -ln p(ids[i] | what stands before it) */
} g4_scorer;

static int g4_on_score(void *user, int index, const float *logits)
{
    g4_scorer *k = user;
    size_t next = k->start + (size_t)index;
    double sum = 0;
    float best = logits[0];
    if (g4_interrupted()) return 1;
    if (next >= k->n || next < k->scored) return 0;
    for (int i = 1; i < k->n_vocab; i++) best = logits[i] > best ? logits[i] : best;
    for (int i = 0; i < k->n_vocab; i++) sum += (double)expf(logits[i] - best);
    k->nll[next] = (float)(log(sum) + (double)best - (double)logits[k->ids[next]]);
    k->scored = next + 1;
    return 0;
}

/* Every token of the text once. A text longer than the context is read in windows of that size that overlap by half,
 * each with BOS in front; a token counts in the first window that holds it. */
static int g4_run_perplexity(g4_args *a)
{
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_engine_info info;
    g4_error err;
    g4_meter meter;
    g4_out out = { 0 };
    g4_buf text = { 0 };
    g4_token *ids = NULL;
    g4_scorer k = { 0 };
    size_t n = 0;
    double start, total = 0;
    int status = g4_open_engine(&e, a);
    if (status != G4_EXIT_DONE) return status;
    g4_engine_get_info(e, &info);
    g4_session_options setup = g4_session_setup(a, &meter);
    status = g4_args_text(a, &text);
    if (status == G4_EXIT_DONE) status = g4_ids_of(e, &text, 0, &ids, &n);
    if (status == G4_EXIT_DONE && --n == 0) status = g4_say(G4_EXIT_FAILED, "the text is empty: nothing to score");
    if (status == G4_EXIT_DONE && g4_session_open(&s, e, &setup, &err) != G4_OK) status = g4_failed(&err);
    if (status == G4_EXIT_DONE && a->nll != NULL) status = g4_out_open(&out, a->nll);
    if (status != G4_EXIT_DONE) goto done;

    k = (g4_scorer){ .ids = ids + 1, .n = n, .n_vocab = info.n_vocab };
    k.nll = g4_alloc(NULL, n, sizeof *k.nll);
    size_t window = (size_t)g4_session_n_ctx(s), step = window > 1 ? window / 2 : 1;
    g4_token *tokens = g4_alloc(NULL, window, sizeof *tokens);
    if (k.nll == NULL || tokens == NULL) status = g4_say(G4_EXIT_FAILED, "no memory for %zu tokens", n);
    start = g4_now();
    for (; status == G4_EXIT_DONE && k.scored < n; k.start += step) {
        size_t m = n - k.start < window ? n - k.start : window; /* the last token is only predicted */
        tokens[0] = info.bos;
        memcpy(tokens + 1, k.ids + k.start, (m - 1) * sizeof *tokens);
        g4_prompt prompt = { .tokens = tokens, .n = (int)m };
        if (g4_session_rewind(s, 0, &err) != G4_OK || g4_session_eval_all(s, &prompt, g4_on_score, &k, &err) != G4_OK) {
            status = g4_failed(&err);
        }
        g4_meter_end(&meter);
    }
    g4_free(NULL, tokens);
    if (status == G4_EXIT_DONE) {
        for (size_t i = 0; i < n; i++) total += (double)k.nll[i];
        if (out.f != NULL) (void)g4_out_write(&out, k.nll, n * sizeof(float));
    }
    status = g4_out_close(&out, status);
    if (status == G4_EXIT_DONE) {
        g4_buf line = { 0 };
        double mean = total / (double)n, seconds = g4_now() - start;
        g4_buf_fmt(&line, a->json ? "{\"perplexity\":%.6g,\"nll\":%.6g,\"tokens\":%zu,\"seconds\":%.3f}\n"
                                  : "perplexity %.4f, %.5f nats a token, %zu tokens in %.1f s\n",
                   exp(mean), mean, n, seconds);
        status = g4_print_buf(&line);
        g4_buf_free(&line);
    }
done:
    status = g4_out_close(&out, status);
    g4_free(NULL, k.nll);
    g4_free(NULL, ids);
    g4_buf_free(&text);
    g4_session_close(s);
    g4_engine_close(e);
    return status;
}

static double g4_mb(uint64_t bytes) { return (double)bytes / 1e6; }

static int g4_run_info(g4_args *a)
{
    g4_engine *e = NULL;
    g4_engine_info info;
    g4_tensor_info t;
    g4_memory_plan plan;
    g4_meter meter;
    g4_buf b = { 0 };
    struct { const char *type, *layout; int n; uint64_t bytes; } kinds[16];
    int n_kinds = 0;
    double start = g4_now();
    int status = g4_open_engine(&e, a);
    if (status != G4_EXIT_DONE) return status;
    double opened = g4_now() - start;
    const g4_config *c = g4_engine_config(e);
    g4_engine_get_info(e, &info);
    g4_buf_fmt(&b, "model           %s (%s)\n", info.name, info.is_chat ? "chat" : "base");
    g4_buf_fmt(&b, "file            %s, %.1f MB, opened in %.1f ms\n", a->model, g4_mb(info.file_bytes), 1e3 * opened);
    g4_buf_fmt(&b, "parameters      %.1f M\n", (double)info.n_params / 1e6);
    g4_buf_fmt(&b, "layers          %d, hidden %d, query heads %u, window %u\n", info.n_layers, info.hidden,
               (unsigned)c->n_heads, (unsigned)c->window);
    if (c->ple_dim > 0) g4_buf_fmt(&b, "per layer       embeddings of %u\n", (unsigned)c->ple_dim);
    if (c->n_experts > 0) {
        g4_buf_fmt(&b, "experts         %u of width %u, %u for each token\n", (unsigned)c->n_experts,
                   (unsigned)c->expert_dim, (unsigned)c->n_experts_used);
    }
    g4_buf_fmt(&b, "head            %s", c->flags & G4_CONFIG_TIED ? "tied to the embedding" : "its own");
    if (c->softcap > 0) g4_buf_fmt(&b, ", softcap %g", (double)c->softcap);
    g4_buf_fmt(&b, "\nvocabulary      %d (bos %d, eos %d, pad %d)\n", info.n_vocab, (int)info.bos, (int)info.eos,
               (int)info.pad);
    g4_buf_fmt(&b, "context         up to %d\n", info.max_ctx);
    if (info.has_image) {
        g4_buf_fmt(&b, "vision          %u layers, hidden %u, %u soft tokens by default\n", (unsigned)c->v_layers,
                   (unsigned)c->v_hidden, (unsigned)c->v_default_tokens);
    }
    if (info.has_audio)
        g4_buf_fmt(&b, "audio           %u layers, hidden %u\n", (unsigned)c->a_layers, (unsigned)c->a_hidden);
    g4_buf_fmt(&b, "kernels         %s, %d threads\n\ntensors\n", info.isa, info.n_threads);
    for (int i = 0; g4_engine_get_tensor(e, i, &t); i++) {
        int k = 0;
        while (k < n_kinds && (strcmp(kinds[k].type, t.type) != 0 || strcmp(kinds[k].layout, t.layout) != 0)) k++;
        if (k == n_kinds && n_kinds == (int)(sizeof kinds / sizeof kinds[0])) break;
        if (k == n_kinds) {
            kinds[k].type = t.type;
            kinds[k].layout = t.layout;
            kinds[k].n = 0;
            kinds[k].bytes = 0;
            n_kinds++;
        }
        kinds[k].n++;
        kinds[k].bytes += t.bytes;
    }
    for (int k = 0; k < n_kinds; k++) {
        g4_buf_fmt(&b, "  %-5s %-9s %5d tensors %10.1f MB\n", kinds[k].type, kinds[k].layout, kinds[k].n,
                   g4_mb(kinds[k].bytes));
    }
    g4_session_options setup = g4_session_setup(a, &meter);
    g4_session_plan(e, &setup, &plan);
    g4_buf_fmt(&b, "\nmemory for a context of %d\n", a->n_ctx > 0 ? a->n_ctx : g4_min_int(8192, info.max_ctx));
    g4_buf_fmt(&b, "  weights         %10.1f MB  mapped from the file, read for each token\n", g4_mb(plan.weights));
    g4_buf_fmt(&b, "  tables by row   %10.1f MB  stay on disk but for the rows in use\n", g4_mb(plan.lookup));
    g4_buf_fmt(&b, "  keys, values    %10.1f MB  at most, taken as the context fills\n", g4_mb(plan.kv));
    g4_buf_fmt(&b, "  work buffers    %10.1f MB\n", g4_mb(plan.work));
    if (plan.available > 0) g4_buf_fmt(&b, "  free now        %10.1f MB\n", g4_mb(plan.available));
    status = g4_print_buf(&b);
    g4_buf_free(&b);
    g4_engine_close(e);
    return status;
}

/* Numbers of a list such as 128,512. Returns how many, 0 when the list is wrong. */
static int g4_parse_lengths(const char *text, int *out, int cap)
{
    int n = 0;
    for (;;) {
        char *end;
        long x = strtol(text, &end, 10);
        if (end == text || x < 1 || x > 1 << 20 || n == cap) return 0;
        out[n++] = (int)x;
        if (*end == '\0') return n;
        if (*end != ',') return 0;
        text = end + 1;
    }
}

/* The name of the CPU, of the kernel's list; empty where it has none. */
static void g4_cpu_name(char *out, size_t cap)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    out[0] = '\0';
    while (f != NULL && out[0] == '\0' && fgets(line, sizeof line, f) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
        colon += 1 + strspn(colon + 1, " ");
        snprintf(out, cap, "%.*s", (int)strcspn(colon, "\n"), colon);
    }
    if (f != NULL) fclose(f);
}

/* Read bandwidth of this machine: each thread sums its part of a block far larger than the caches. */
typedef struct {
    const uint64_t *data;
    size_t n;
    uint64_t sum;
} g4_reading;

static void *g4_read_main(void *arg)
{
    g4_reading *r = arg;
    uint64_t s[16] = { 0 }; /* two cache lines at a time, as many independent sums */
    for (size_t i = 0; i + 16 <= r->n; i += 16)
        for (size_t k = 0; k < 16; k++) s[k] += r->data[i + k];
    for (size_t k = 0; k < 16; k++) r->sum += s[k];
    return NULL;
}

/* GB/s, the best of five rounds over 512 MB; 0 when that cannot be had. */
static double g4_bandwidth(int n_threads)
{
    enum { ROUNDS = 5, MOST = 256 };
    const size_t words = (size_t)64 << 20, n = (size_t)g4_min_int(n_threads, MOST), share = words / n;
    uint64_t *data = g4_alloc(NULL, words, sizeof *data), sum = 0;
    g4_reading parts[MOST];
    pthread_t threads[MOST];
    double best = 0;
    if (data == NULL) return 0;
    for (size_t i = 0; i < words; i++) data[i] = i;
    for (int round = 0; round < ROUNDS; round++) {
        size_t started = 1;
        double start = g4_now();
        for (size_t i = 0; i < n; i++) parts[i] = (g4_reading){ data + i * share, share, 0 };
        while (started < n && pthread_create(&threads[started], NULL, g4_read_main, &parts[started]) == 0) started++;
        (void)g4_read_main(&parts[0]);
        for (size_t i = 1; i < started; i++) pthread_join(threads[i], NULL);
        double seconds = g4_now() - start, rate = (double)(started * share * sizeof *data) / seconds * 1e-9;
        for (size_t i = 0; i < started; i++) sum += parts[i].sum;
        if (rate > best) best = rate;
    }
    g4_free(NULL, data);
    return sum == 1 ? 0 : best; /* never 1: keeps the sums */
}

static int g4_run_bench(g4_args *a)
{
    enum { MAX_LENGTHS = 32 };
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_engine_info info;
    g4_error err = { 0 };
    g4_meter meter;
    g4_buf b = { 0 };
    g4_token *ids = NULL;
    double *prefill = NULL, *decode = NULL;
    int lengths[MAX_LENGTHS], longest = 0, runs = a->repeat > 0 ? a->repeat : 3,
                              n = a->max_tokens > 0 ? a->max_tokens : 64;
    int n_lengths = g4_parse_lengths(a->lengths != NULL ? a->lengths : "128,512,2048,8192", lengths, MAX_LENGTHS);
    if (n_lengths == 0) return g4_say(G4_EXIT_USAGE, "--lengths needs numbers like 128,512, not \"%s\"", a->lengths);
    for (int i = 0; i < n_lengths; i++) longest = g4_max_int(longest, lengths[i]);
    int status = g4_open_engine(&e, a);
    if (status != G4_EXIT_DONE) return status;
    g4_engine_get_info(e, &info);
    char cpu[256];
    g4_cpu_name(cpu, sizeof cpu);
    (void)g4_engine_prefault(e, NULL, NULL, &err); /* from memory, not from disk; a failure shows in the figures */
    const double bandwidth = g4_bandwidth(info.n_threads);
    g4_session_options setup = g4_session_setup(a, &meter);
    meter.enabled = 0;
    if (setup.n_ctx == 0) setup.n_ctx = longest + n;
    if (g4_session_open(&s, e, &setup, &err) != G4_OK) status = g4_failed(&err);
    ids = g4_alloc(NULL, (size_t)longest, sizeof *ids);
    prefill = g4_alloc(NULL, (size_t)runs, sizeof *prefill);
    decode = g4_alloc(NULL, (size_t)runs, sizeof *decode);
    if (ids == NULL || prefill == NULL || decode == NULL) status = g4_say(G4_EXIT_FAILED, "no memory for the bench");
    for (int i = 0; status == G4_EXIT_DONE && i < longest;
         i++) { /* spread over the vocabulary, the same in every run */
        ids[i] = (g4_token)(((uint64_t)i * 2654435761u + 12345u) % (uint64_t)info.n_vocab);
    }
    if (status == G4_EXIT_DONE && a->json) {
        g4_buf_str(&b, "{\"model\":");
        g4_json_quote(&b, info.name, strlen(info.name));
        g4_buf_str(&b, ",\"cpu\":");
        g4_json_quote(&b, cpu, strlen(cpu));
        g4_buf_fmt(&b,
                   ",\"isa\":\"%s\",\"threads\":%d,\"bandwidth_gb_per_second\":%.3f,\"decode_bytes\":%llu,"
                   "\"decode_multiply_adds\":%llu,\"prefill_multiply_adds\":%llu,\"runs\":[",
                   info.isa, info.n_threads, bandwidth, (unsigned long long)info.decode_bytes,
                   (unsigned long long)info.decode_products, (unsigned long long)info.prompt_products);
    } else if (status == G4_EXIT_DONE) {
        g4_buf_fmt(&b, "%s on %s, %s, %d threads, memory read at %.1f GB/s\n", info.name,
                   cpu[0] ? cpu : "an unnamed CPU", info.isa, info.n_threads, bandwidth);
        g4_buf_fmt(&b, "median of %d; decode: %d tokens behind each length; Gmul: 10^9 multiply-adds with weights\n",
                   runs, n);
        g4_buf_str(&b, "          prefill              decode\n"
                       "  length   tokens/s   Gmul/s   tokens/s     GB/s   of memory   Gmul/s\n");
    }
    for (int i = 0; status == G4_EXIT_DONE && i < n_lengths; i++) {
        g4_sampling greedy = { 0 };
        g4_generate_options opt = {
            .sampling = &greedy, .max_tokens = n, .no_guard = 1, .ignore_stop_ids = 1, .no_lookup = 1
        };
        g4_result result = { 0 };
        for (int r = 0; status == G4_EXIT_DONE && r < runs; r++) {
            if (g4_session_rewind(s, 0, &err) != G4_OK) status = g4_failed(&err);
            double start = g4_now();
            if (status == G4_EXIT_DONE && g4_session_eval(s, ids, lengths[i], &err) != G4_OK) status = g4_failed(&err);
            double read = g4_now();
            if (status == G4_EXIT_DONE && g4_session_generate(s, &opt, &result, &err) != G4_OK)
                status = g4_failed(&err);
            if (status == G4_EXIT_DONE) status = g4_interrupted();
            prefill[r] = g4_rate(lengths[i], read - start);
            decode[r] = g4_rate(result.n_tokens, g4_now() - read);
        }
        if (status != G4_EXIT_DONE) break;
        double p = g4_median(prefill, runs), d = g4_median(decode, runs), gb = d * (double)info.decode_bytes / 1e9;
        double reading = p * (double)info.prompt_products / 1e9, answering = d * (double)info.decode_products / 1e9;
        double share = bandwidth > 0 ? gb / bandwidth : 0;
        if (a->json)
            g4_buf_fmt(&b,
                       "%s{\"length\":%d,\"prefill_tokens_per_second\":%.3f,\"prefill_gmul_per_second\":%.3f,"
                       "\"decode_tokens_per_second\":%.3f,\"decode_gb_per_second\":%.3f,"
                       "\"share_of_bandwidth\":%.4f,\"decode_gmul_per_second\":%.3f}",
                       i > 0 ? "," : "", lengths[i], p, reading, d, gb, share, answering);
        else
            g4_buf_fmt(&b, "%8d   %8.1f   %6.1f   %8.1f   %6.2f   %7.0f %%   %6.1f\n", lengths[i], p, reading, d, gb,
                       100 * share, answering);
    }
    if (status == G4_EXIT_DONE && a->json) g4_buf_str(&b, "]}\n");
    if (status == G4_EXIT_DONE) status = g4_print_buf(&b);
    g4_buf_free(&b);
    g4_free(NULL, ids);
    g4_free(NULL, prefill);
    g4_free(NULL, decode);
    g4_session_close(s);
    g4_engine_close(e);
    return status;
}

/* ---- 9. main -------------------------------------------------------------------------------------- */

static const g4_command g4_commands[] = {
    { "", g4_run_answer, G4_FOR_ANSWER, "-m MODEL [-p TEXT | -f FILE]...",
      "answer a prompt; without one, chat (on a terminal) or read standard input" },
    { "info", g4_run_info, G4_FOR_INFO, "-m MODEL [-c N]", "what the model is and the memory it needs" },
    { "bench", g4_run_bench, G4_FOR_BENCH, "-m MODEL [--lengths LIST]", "speed of reading and of answering" },
    { "tokenize", g4_run_tokenize, G4_FOR_TOKENIZE, "-m MODEL [-f FILE]", "token ids of FILE or standard input" },
    { "detokenize", g4_run_detokenize, G4_FOR_DETOKENIZE, "-m MODEL [-f FILE]",
      "bytes of the token ids in FILE or standard input" },
    { "render", g4_run_render, G4_FOR_RENDER, "-m MODEL < JSON",
      "the prompt of a conversation, as the chat template makes it" },
    { "perplexity", g4_run_perplexity, G4_FOR_PERPLEXITY, "-m MODEL -f TEXT", "how well the model predicts a text" },
    { "logits", g4_run_logits, G4_FOR_LOGITS, "-m MODEL --tokens LIST -o FILE", "scores of the next token" },
    { "encode", g4_run_encode, G4_FOR_ENCODE, "-m MODEL (--image F | --audio F | --video F) -o FILE",
      "soft tokens of a picture, a sound or a video" },
    { "mel", g4_run_mel, G4_FOR_MEL, "-f WAV -o FILE", "log-mel frames of a sound, as the audio tower reads them" },
    { "patches", g4_run_patches, G4_FOR_PATCHES, "-f PICTURE -o FILE",
      "patches of a picture, as the vision tower reads them" },
};
#define G4_N_COMMANDS (sizeof g4_commands / sizeof g4_commands[0])

static int g4_help(const g4_command *c)
{
    g4_buf b = { 0 };
    g4_buf_fmt(&b, "usage: gemma4%s%s %s\n%s.\n", c->name[0] != '\0' ? " " : "", c->name, c->usage, c->help);
    if (c->name[0] == '\0') {
        g4_buf_str(&b, "\ncommands (gemma4 COMMAND --help says more):\n");
        for (size_t i = 1; i < G4_N_COMMANDS; i++)
            g4_buf_fmt(&b, "  %-12s%s\n", g4_commands[i].name, g4_commands[i].help);
    }
    g4_buf_str(&b, "\noptions:\n");
    for (size_t i = 0; i < G4_N_OPTIONS; i++) {
        const g4_option *o = &g4_options[i];
        char left[64];
        if ((o->commands & c->bit) == 0) continue;
        snprintf(left, sizeof left, "%s%s%s%s%s", o->letter != NULL ? o->letter : "",
                 o->letter != NULL && o->name != NULL ? ", " : "", o->name != NULL ? o->name : "",
                 o->value != NULL && o->value[0] != '[' ? " " : "", o->value != NULL ? o->value : "");
        g4_buf_fmt(&b, "  %-24s %s\n", left, o->help);
    }
    g4_buf_str(&b, "\nExit status: 0 done, 1 a file, a model or the run failed, 2 wrong usage, 130 interrupted.\n");
    int status = g4_print_buf(&b);
    g4_buf_free(&b);
    return status;
}

int main(int argc, char **argv)
{
    g4_args a = { .command = &g4_commands[0],
                  .max_tokens = -1,
                  .n_ctx = -1,
                  .n_threads = -1,
                  .top_k = -1,
                  .logprobs = -1,
                  .repeat = -1,
                  .kv = -1,
                  .frames = -1,
                  .frame_tokens = -1,
                  .image_tokens = -1,
                  .block = -1,
                  .fps = NAN,
                  .temperature = NAN,
                  .top_p = NAN,
                  .min_p = NAN,
                  .repeat_penalty = NAN,
                  .presence_penalty = NAN,
                  .frequency_penalty = NAN,
                  .seed = NAN };
    struct sigaction action = { .sa_handler = g4_on_signal }; /* no SA_RESTART: a blocked read must notice */
    int first = 1;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (signal(SIGHUP, SIG_IGN) != SIG_IGN) sigaction(SIGHUP, &action, NULL); /* nohup ignores it already */
    signal(SIGPIPE, SIG_IGN); /* a write to a closed pipe fails, and the failure is handled like any other */
    if (argc > 1 && argv[1][0] != '-') {
        size_t i = 1;
        while (i < G4_N_COMMANDS && strcmp(argv[1], g4_commands[i].name) != 0) i++;
        if (i == G4_N_COMMANDS) return g4_say(G4_EXIT_USAGE, "unknown command \"%s\"; see gemma4 --help", argv[1]);
        a.command = &g4_commands[i];
        first = 2;
    }
    a.parts = g4_alloc(NULL, (size_t)argc + 1, sizeof *a.parts);
    if (a.parts == NULL) return g4_say(G4_EXIT_FAILED, "no memory for the arguments");
    int status = g4_args_parse(&a, argc, argv, first);
    if (status == G4_EXIT_DONE) {
        if (a.help) {
            status = g4_help(a.command);
        } else if (a.version) {
            status = printf("gemma4 %s\n", G4_VERSION) < 0 || fflush(stdout) != 0;
        } else {
            status = a.command->run(&a);
        }
    }
    g4_free(NULL, a.parts);
    g4_buf_free(&a.found_model);
    return status;
}
