/* run.c - the command line of gemma4.c: main, the table of options, and the command without a name, which answers one
 * question or opens the chat. cli/cli.h lists what it stands on. The command line alone prints, exits and reads the
 * environment; the library does none of these. */
#include "cli/cli.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Options: one table for all commands ----------------------------------------------------------- */

/* Who takes an option: one bit for each command. */
enum {
    FOR_ANSWER = 1 << 0,
    FOR_INFO = 1 << 1,
    FOR_BENCH = 1 << 2,
    FOR_TOKENIZE = 1 << 3,
    FOR_DETOKENIZE = 1 << 4,
    FOR_RENDER = 1 << 5,
    FOR_PERPLEXITY = 1 << 6,
    FOR_LOGITS = 1 << 7,
    FOR_ENCODE = 1 << 8,
    FOR_MEL = 1 << 9,
    FOR_PATCHES = 1 << 10,
    FOR_MEDIA = FOR_ANSWER | FOR_ENCODE | FOR_LOGITS,
    FOR_SESSIONS = FOR_ANSWER | FOR_INFO | FOR_BENCH | FOR_PERPLEXITY | FOR_LOGITS,
    FOR_MODELS = FOR_SESSIONS | FOR_TOKENIZE | FOR_DETOKENIZE | FOR_RENDER | FOR_ENCODE
};

typedef enum {
    OPTION_FLAG,
    OPTION_INT,
    OPTION_NUMBER,
    OPTION_SEED, /* a whole number beyond int */
    OPTION_TEXT,
    OPTION_INPUT,
    OPTION_STOP,
    OPTION_BIAS,
    OPTION_KV,
    OPTION_BUDGET, /* of soft tokens */
    OPTION_THINK,
    OPTION_JSON
} option_kind;
typedef struct {
    const char *letter, *name; /* "-m", "--model"; either may be NULL */
    const char *value;         /* what stands for it in the help; NULL for a flag, "[=N]" when it may be left out */
    option_kind kind;
    size_t target; /* where the value goes: the offset of a field of arguments; OPTION_INPUT: which input_kind it is */
    double min, max;
    unsigned commands;
    const char *help;
} option;

#define FIELD(name) offsetof(arguments, name)
static const option options[] = {
    { "-m", NULL, "FILE", OPTION_TEXT, FIELD(model), 0, 0, FOR_MODELS, "model file written by export.py" },
    { "-p", NULL, "TEXT", OPTION_INPUT, INPUT_TEXT, 0, 0, FOR_ANSWER, "text of the prompt" },
    { "-f", NULL, "FILE", OPTION_INPUT, INPUT_FILE, 0, 0, FOR_ANSWER | FOR_TOKENIZE | FOR_DETOKENIZE | FOR_PERPLEXITY,
      "text of FILE; - is standard input" },
    { "-f", NULL, "FILE", OPTION_INPUT, INPUT_AUDIO, 0, 0, FOR_MEL, "a sound: WAV, or what ffmpeg reads" },
    { "-f", NULL, "FILE", OPTION_INPUT, INPUT_IMAGE, 0, 0, FOR_PATCHES,
      "a picture: PNG, JPEG, PPM, or what ffmpeg reads" },
    { NULL, "--block", "N", OPTION_INT, FIELD(block), 0, INT_MAX, FOR_MEL, "which block of at most 30 s (default 0)" },
    { NULL, "--template", "NAME", OPTION_TEXT, FIELD(template_name), 0, 0, FOR_RENDER,
      "31b-2026-07, e2b-2026-07 or 31b-2026-04 (default: the model's)" },
    { NULL, "--image", "FILE", OPTION_INPUT, INPUT_IMAGE, 0, 0, FOR_MEDIA,
      "a picture: PNG, JPEG, PPM, or what ffmpeg reads" },
    { NULL, "--audio", "FILE", OPTION_INPUT, INPUT_AUDIO, 0, 0, FOR_MEDIA, "a sound: WAV, or what ffmpeg reads" },
    { NULL, "--video", "FILE", OPTION_INPUT, INPUT_VIDEO, 0, 0, FOR_MEDIA, "a video: y4m, or what ffmpeg reads" },
    { NULL, "--image-tokens", "N", OPTION_BUDGET, FIELD(image_tokens), 0, 0, FOR_MEDIA | FOR_PATCHES,
      "soft tokens of the pictures behind it: 70, 140, 280 (default), 560 or 1120" },
    { NULL, "--frame-tokens", "N", OPTION_BUDGET, FIELD(frame_tokens), 0, 0, FOR_MEDIA,
      "soft tokens of a frame of the videos behind it (default 70)" },
    { NULL, "--frames", "N", OPTION_INT, FIELD(frames), 1, 1024, FOR_MEDIA, "frames of a video (default 32)" },
    { NULL, "--fps", "X", OPTION_NUMBER, FIELD(fps), 0.001, 1000, FOR_MEDIA, "frames a second instead" },
    { NULL, "--no-video-audio", NULL, OPTION_FLAG, FIELD(no_video_audio), 0, 0, FOR_ANSWER,
      "leave the sound of videos out" },
    { NULL, "--ffmpeg", "NAME", OPTION_TEXT, FIELD(ffmpeg), 0, 0, FOR_MEDIA | FOR_MEL | FOR_PATCHES,
      "the ffmpeg program (default ffmpeg)" },
    { NULL, "--max-pixels", "N", OPTION_INT, FIELD(max_pixels), 1, INT_MAX, FOR_MEDIA | FOR_PATCHES,
      "pixels of a picture or frame at most (default 178956970)" },
    { NULL, "--system", "TEXT", OPTION_TEXT, FIELD(system), 0, 0, FOR_ANSWER, "system prompt" },
    { NULL, "--messages", "FILE", OPTION_TEXT, FIELD(messages), 0, 0, FOR_ANSWER,
      "answer this request in OpenAI's format, or list of messages; - is standard input" },
    { NULL, "--media-root", "DIR", OPTION_TEXT, FIELD(media_root), 0, 0, FOR_ANSWER,
      "where the files that --messages names may stand (default: the folder of its file)" },
    { NULL, "--tools", "FILE", OPTION_TEXT, FIELD(tools), 0, 0, FOR_ANSWER,
      "JSON list of functions the model may call" },
    { NULL, "--tool-choice", "WHICH", OPTION_TEXT, FIELD(tool_choice), 0, 0, FOR_ANSWER,
      "auto (default), none, required, or the name of a function" },
    { NULL, "--tool-exec", "PROGRAM", OPTION_TEXT, FIELD(tool_exec), 0, 0, FOR_ANSWER,
      "answer calls by running PROGRAM NAME, arguments on its standard input; asks first. No NAME begins with -" },
    { NULL, "--yes", NULL, OPTION_FLAG, FIELD(yes), 0, 0, FOR_ANSWER, "run it without asking" },
    { NULL, "--json-schema", "S", OPTION_TEXT, FIELD(json_schema), 0, 0, FOR_ANSWER,
      "the answer is JSON that follows this schema: a file, or the schema itself" },
    { NULL, "--strict-schema", NULL, OPTION_FLAG, FIELD(strict_schema), 0, 0, FOR_ANSWER,
      "what a schema says and cannot be held exactly is an error, and not loosened; of tools too" },
    { NULL, "--closed-schema", NULL, OPTION_FLAG, FIELD(closed_schema), 0, 0, FOR_ANSWER,
      "objects have only declared members where additionalProperties says nothing" },
    { NULL, "--grammar", "FILE", OPTION_TEXT, FIELD(grammar), 0, 0, FOR_ANSWER, "the answer follows these rules" },
    { NULL, "--boxes", "OUT.png", OPTION_TEXT, FIELD(boxes), 0, 0, FOR_ANSWER,
      "draw the boxes and points of the answer on the last picture" },
    { NULL, "--raw", NULL, OPTION_FLAG, FIELD(raw), 0, 0, FOR_ANSWER,
      "no chat template: continue the text, begin-of-sequence token in front" },
    { NULL, "--specials", NULL, OPTION_FLAG, FIELD(specials), 0, 0, FOR_ANSWER | FOR_TOKENIZE,
      "read markers such as <|turn> in the text as control tokens (with --raw)" },
    { NULL, "--think", "[=N]", OPTION_THINK, FIELD(think), 0, 0, FOR_ANSWER,
      "let the model think before it answers, N tokens at most" },
    { NULL, "--show-thoughts", NULL, OPTION_FLAG, FIELD(show_thoughts), 0, 0, FOR_ANSWER, "thoughts on stderr" },
    { "-n", NULL, "N", OPTION_INT, FIELD(max_tokens), 0, INT_MAX, FOR_ANSWER | FOR_BENCH,
      "tokens to generate at most (default: until the answer or the context ends)" },
    { "-c", NULL, "N", OPTION_INT, FIELD(n_ctx), 1, INT_MAX, FOR_SESSIONS,
      "context: positions at most (default 8192, or what the model has)" },
    { "-t", NULL, "N", OPTION_INT, FIELD(n_threads), 1, 1024, FOR_SESSIONS | FOR_ENCODE,
      "threads (default: the physical cores)" },
    { NULL, "--temp", "X", OPTION_NUMBER, FIELD(temperature), 0, 1e6, FOR_ANSWER,
      "temperature, 0 takes the best token (default: what the model recommends)" },
    { NULL, "--top-k", "N", OPTION_INT, FIELD(top_k), 0, INT_MAX, FOR_ANSWER, "choose among the N best, 0: all" },
    { NULL, "--top-p", "X", OPTION_NUMBER, FIELD(top_p), 0, 1, FOR_ANSWER, "smallest set of this probability, 1: all" },
    { NULL, "--min-p", "X", OPTION_NUMBER, FIELD(min_p), 0, 1, FOR_ANSWER, "at least X times the best probability" },
    { NULL, "--repeat-penalty", "X", OPTION_NUMBER, FIELD(repeat_penalty), 0, 1e6, FOR_ANSWER,
      "make tokens seen before less likely, 1: off" },
    { NULL, "--presence-penalty", "X", OPTION_NUMBER, FIELD(presence_penalty), -1e6, 1e6, FOR_ANSWER,
      "subtracted from logits of tokens in the answer" },
    { NULL, "--frequency-penalty", "X", OPTION_NUMBER, FIELD(frequency_penalty), -1e6, 1e6, FOR_ANSWER,
      "the same for each time they occur" },
    { NULL, "--logit-bias", "ID:X", OPTION_BIAS, 0, 0, 0, FOR_ANSWER, "add X to the logit of token ID (repeatable)" },
    { NULL, "--seed", "N", OPTION_SEED, FIELD(seed), 0, 9007199254740992.0, FOR_ANSWER,
      "of the random numbers (default 0: the same call gives the same answer)" },
    { NULL, "--stop", "TEXT", OPTION_STOP, 0, 0, 0, FOR_ANSWER, "end the answer before TEXT (repeatable)" },
    { NULL, "--no-guard", NULL, OPTION_FLAG, FIELD(no_guard), 0, 0, FOR_ANSWER,
      "do not end an answer that repeats itself without end" },
    { NULL, "--no-lookup", NULL, OPTION_FLAG, FIELD(no_lookup), 0, 0, FOR_ANSWER,
      "do not guess from the text what may follow (the answer is the same)" },
    { NULL, "--logprobs", "N", OPTION_INT, FIELD(logprobs), 0, 64, FOR_ANSWER,
      "log-probabilities of each token and of the N best" },
    { NULL, "--session", "FILE", OPTION_TEXT, FIELD(session), 0, 0, FOR_ANSWER,
      "go on from FILE if it is there, and write it back at the end" },
    { NULL, "--bos", NULL, OPTION_FLAG, FIELD(bos), 0, 0, FOR_TOKENIZE, "put the begin-of-sequence token in front" },
    { NULL, "--skip-specials", NULL, OPTION_FLAG, FIELD(skip_specials), 0, 0, FOR_DETOKENIZE,
      "leave control tokens out" },
    { NULL, "--tokens", "LIST", OPTION_TEXT, FIELD(tokens), 0, 0, FOR_LOGITS,
      "token ids (\"2,818,5279\"), or @FILE with them; nothing is added" },
    { NULL, "--all", NULL, OPTION_FLAG, FIELD(all), 0, 0, FOR_LOGITS, "every position, not only the last" },
    { NULL, "--dump", "FILE", OPTION_TEXT, FIELD(dump), 0, 0, FOR_LOGITS,
      "every activation of every layer and token as safetensors, by its name in MODEL.md" },
    { "-o", NULL, "FILE", OPTION_TEXT, FIELD(output), 0, 0, FOR_LOGITS | FOR_ENCODE | FOR_MEL | FOR_PATCHES,
      "little-endian float32; - is standard output" },
    { NULL, "--nll", "FILE", OPTION_TEXT, FIELD(nll), 0, 0, FOR_PERPLEXITY,
      "negative log-likelihood of each token, little-endian float32" },
    { NULL, "--lengths", "LIST", OPTION_TEXT, FIELD(lengths), 0, 0, FOR_BENCH,
      "prompt lengths (default 128,512,2048,8192)" },
    { NULL, "--repeat", "N", OPTION_INT, FIELD(repeat), 1, 1000, FOR_BENCH, "runs, of which the median (default 3)" },
    { NULL, "--kv", "TYPE", OPTION_KV, FIELD(kv), 0, 0, FOR_SESSIONS,
      "keys and values: f16, f32 or q8_0 (default f16; f32 for f32 models)" },
    { NULL, "--mlock", NULL, OPTION_FLAG, FIELD(lock_memory), 0, 0, FOR_SESSIONS,
      "lock the weights in memory: nothing pages them out" },
    { NULL, "--huge-pages", NULL, OPTION_FLAG, FIELD(huge_pages), 0, 0, FOR_SESSIONS,
      "copy the weights into huge pages: opens slower, answers faster" },
    { NULL, "--no-mmap", NULL, OPTION_FLAG, FIELD(no_mmap), 0, 0, FOR_SESSIONS | FOR_ENCODE,
      "read the model file into memory and do not map it: it may be cut short or its disk go away" },
    { NULL, "--isa", "NAME", OPTION_TEXT, FIELD(isa), 0, 0, FOR_SESSIONS | FOR_ENCODE,
      "kernels (default: the best of this CPU)" },
    { NULL, "--json", "[=openai]", OPTION_JSON, FIELD(json), 0, 0, FOR_ANSWER,
      "print one JSON object, ours or a chat.completion" },
    { NULL, "--json", NULL, OPTION_FLAG, FIELD(json), 0, 0, FOR_BENCH | FOR_PERPLEXITY | FOR_ENCODE,
      "print one JSON object" },
    { NULL, "--quiet", NULL, OPTION_FLAG, FIELD(quiet), 0, 0, FOR_MODELS, "only errors and warnings on stderr" },
    { "-h", "--help", NULL, OPTION_FLAG, FIELD(help), 0, 0, ~0u, "this text" },
    { NULL, "--version", NULL, OPTION_FLAG, FIELD(version), 0, 0, ~0u, "the version" },
};
enum { N_OPTIONS = sizeof options / sizeof options[0] };

/* ---- Values of options ------------------------------------------------------------------------------- */

static int *int_field(arguments *a, const option *o) { return (int *)(void *)((char *)a + o->target); }
static double *number_field(arguments *a, const option *o) { return (double *)(void *)((char *)a + o->target); }
static const char **text_field(arguments *a, const option *o) { return (const char **)(void *)((char *)a + o->target); }

/* A number, the whole of text; 0 on success. */
static int parse_number(const char *text, double *out)
{
    char *end;
    if (*text == '\0' || *text == ' ') return 1;
    *out = strtod(text, &end);
    return *end != '\0' || isnan(*out);
}

static int parse_whole(const char *text, double min, double max, int *out)
{
    double x = 0;
    if (parse_number(text, &x) || x != floor(x) || x < min || x > max) return 1;
    *out = (int)x;
    return 0;
}

static int wrong_value(const option *o, const char *given, const char *wanted)
{
    return say(USAGE, "%s needs %s, not \"%s\"", o->letter != NULL ? o->letter : o->name, wanted, given);
}

static int set_int(const option *o, const char *value, int *field)
{
    char wanted[96];
    snprintf(wanted, sizeof wanted, "a whole number from %.0f to %.0f", o->min, o->max);
    return parse_whole(value, o->min, o->max, field) ? wrong_value(o, value, wanted) : DONE;
}

static int set_number(const option *o, const char *value, double *field)
{
    char wanted[96];
    double x = 0;
    snprintf(wanted, sizeof wanted, "a number from %g to %g", o->min, o->max);
    if (parse_number(value, &x) || x < o->min || x > o->max) return wrong_value(o, value, wanted);
    if (o->kind == OPTION_SEED && x != floor(x)) return wrong_value(o, value, "a whole number");
    *field = x;
    return DONE;
}

/* Pictures and videos take the budget that was given before them. */
static void add_input(arguments *a, input_kind kind, const char *value)
{
    a->inputs[a->n_inputs++] = (input) { kind, value, media_budget(a, input_part(kind)) };
}

static int add_stop(arguments *a, const option *o, const char *value)
{
    if (*value == '\0') return wrong_value(o, value, "a text that is not empty");
    if (a->n_stop == MAX_LIST) return say(USAGE, "more than %d of --stop", MAX_LIST);
    a->stop[a->n_stop++] = value;
    return DONE;
}

static int add_bias(arguments *a, const option *o, const char *value)
{
    char *end;
    double x = 0;
    long id = strtol(value, &end, 10);
    if (end == value || *end != ':' || id < 0 || id > INT_MAX || parse_number(end + 1, &x)) {
        return wrong_value(o, value, "ID:X, a token id and a number");
    }
    if (a->n_bias == MAX_LIST) return say(USAGE, "more than %d of --logit-bias", MAX_LIST);
    a->bias[a->n_bias++] = (g4_logit_bias) { (g4_token)id, (float)x };
    return DONE;
}

static int set_kv(const option *o, const char *value, int *field)
{
    if (strcmp(value, "f16") == 0)
        *field = G4_KV_USE_F16;
    else if (strcmp(value, "f32") == 0)
        *field = G4_KV_USE_F32;
    else if (strcmp(value, "q8_0") == 0)
        *field = G4_KV_USE_Q8_0;
    else
        return wrong_value(o, value, "f16, f32 or q8_0");
    return DONE;
}

static int set_budget(const option *o, const char *value, int *field)
{
    static const int budgets[] = { 70, 140, 280, 560, 1120 };
    double x = 0;
    int wrong = parse_number(value, &x);
    for (size_t i = 0; !wrong && i < sizeof budgets / sizeof budgets[0]; i++) {
        if (x != budgets[i]) continue;
        *field = budgets[i];
        return DONE;
    }
    return wrong_value(o, value, "70, 140, 280, 560 or 1120");
}

static int set_think(const option *o, const char *value, int *field)
{
    int limit = 0;
    if (value != NULL && parse_whole(value, 1, INT_MAX - 1, &limit)) {
        return wrong_value(o, value, "a whole number from 1");
    }
    *field = 1 + limit;
    return DONE;
}

static int set_json(const option *o, const char *value, int *field)
{
    if (value != NULL && strcmp(value, "openai") != 0) return wrong_value(o, value, "openai, or nothing");
    *field = value != NULL ? JSON_OPENAI : 1;
    return DONE;
}

static int option_set(arguments *a, const option *o, const char *value)
{
    switch (o->kind) {
    case OPTION_FLAG: *int_field(a, o) = 1; break;
    case OPTION_TEXT: *text_field(a, o) = value; break;
    case OPTION_INPUT: add_input(a, (input_kind)o->target, value); break;
    case OPTION_INT: return set_int(o, value, int_field(a, o));
    case OPTION_NUMBER:
    case OPTION_SEED: return set_number(o, value, number_field(a, o));
    case OPTION_STOP: return add_stop(a, o, value);
    case OPTION_BIAS: return add_bias(a, o, value);
    case OPTION_KV: return set_kv(o, value, int_field(a, o));
    case OPTION_BUDGET: return set_budget(o, value, int_field(a, o));
    case OPTION_THINK: return set_think(o, value, int_field(a, o));
    case OPTION_JSON: return set_json(o, value, int_field(a, o));
    }
    return DONE;
}

/* ---- The command line ---------------------------------------------------------------------------------- */

typedef struct {
    const char *name; /* empty: an answer */
    int (*run)(arguments *);
    unsigned bit; /* in option.commands */
    const char *usage, *help;
} command;

/* The option that `arg` names; of two with one name, the one of this command. For --name=value, *value points behind
 * the equals sign. */
static const option *option_find(const char *arg, unsigned bit, const char **value)
{
    size_t n = strcspn(arg, "=");
    const option *found = NULL;
    *value = NULL;
    for (int i = 0; i < N_OPTIONS; i++) {
        const option *o = &options[i];
        int by_letter = o->letter != NULL && strcmp(arg, o->letter) == 0;
        int by_name = o->name != NULL && strlen(o->name) == n && strncmp(arg, o->name, n) == 0;
        if (!by_letter && !by_name) continue;
        if (by_name && arg[n] == '=') *value = arg + n + 1;
        if (found == NULL || (o->commands & bit) != 0) found = o;
    }
    return found;
}

static int parse_arguments(arguments *a, const command *c, int argc, char **argv, int first)
{
    for (int i = first; i < argc; i++) {
        const char *value;
        if (argv[i][0] != '-' || argv[i][1] == '\0') {
            return say(USAGE, "what is \"%s\"? A prompt goes behind -p; see gemma4 --help", argv[i]);
        }
        const option *o = option_find(argv[i], c->bit, &value);
        if (o == NULL) return say(USAGE, "unknown option %s; see gemma4 --help", argv[i]);
        if ((o->commands & c->bit) == 0) {
            return say(USAGE, "%s is not an option of %s; see gemma4 %s --help", argv[i],
                       c->name[0] != '\0' ? c->name : "an answer", c->name);
        }
        if (o->kind == OPTION_FLAG && value != NULL) return say(USAGE, "%s takes no value", o->name);
        if (o->kind != OPTION_FLAG && o->kind != OPTION_THINK && o->kind != OPTION_JSON && value == NULL) {
            if (i + 1 >= argc) return say(USAGE, "%s needs a value: %s", argv[i], o->value);
            value = argv[++i];
        }
        int status = option_set(a, o, value);
        if (status != DONE) return status;
    }
    return DONE;
}

/* ---- Raw text ------------------------------------------------------------------------------------------ */

/* Evaluate the text behind what the session holds, and set the prompt's figures. */
static int read_raw(conversation *c, figures *f)
{
    buffer text = { 0 };
    g4_token *ids = NULL;
    size_t n = 0;
    g4_error err;
    int status = inputs_text(c->args, &text);
    if (status == DONE) status = text_tokens(c->engine, &text, c->args->specials, &ids, &n);
    if (status == DONE) status = conversation_open(c, c->args->session);
    if (status == DONE) {
        double start = seconds_now();
        int before = g4_session_n(c->session), skip = before > 0; /* BOS only in front of everything */
        if ((int)n > skip && g4_session_eval(c->session, ids + skip, (int)n - skip, &err) != G4_OK)
            status = report(&err);
        progress_end(&c->progress);
        f->prompt_tokens = g4_session_n(c->session);
        f->reused = before;
        f->prompt_seconds = seconds_now() - start;
    }
    free(ids);
    buffer_free(&text);
    return status;
}

/* What --json-schema or --grammar make of the text that follows; *guide stays NULL without them. */
static int text_guide(conversation *c, g4_guide **guide)
{
    g4_error err;
    int status = conversation_grammar(c);
    if (status != DONE || c->guide.grammar == NULL) return status;
    return g4_guide_open_text(guide, c->engine, c->guide.grammar, &err) == G4_OK ? DONE : report(&err);
}

/* Continue text without a template. */
static int answer_raw(conversation *c)
{
    const arguments *a = c->args;
    answer_writer w = { .args = a, .engine = c->engine };
    g4_guide *guide = NULL;
    figures f = { .finish = "interrupted", .is_cut = 1 }; /* until there is an answer */
    if (a->n_inputs == 0 && !a->quiet && isatty(STDIN_FILENO)) say(DONE, "type the text to continue; Ctrl-D ends it");
    int status = text_guide(c, &guide);
    w.is_guided = guide != NULL;
    if (status == DONE) status = read_raw(c, &f);
    if (status == DONE) status = answer_generate(&w, c->session, g4_guide_constraint(guide), &f);
    if (status == DONE || (a->json && status == interrupted())) status = answer_end(&w, &f, "");
    if (status == DONE) status = interrupted();
    if (status == DONE && a->session != NULL) status = conversation_save(c, a->session);
    answer_free(&w);
    g4_guide_close(guide);
    return status;
}

/* ---- A chat model: one question, or a conversation ------------------------------------------------------- */

static int has_text(const arguments *a)
{
    int n_texts = 0;
    for (int i = 0; i < a->n_inputs; i++) n_texts += input_part(a->inputs[i].kind) == G4_PART_TEXT;
    return n_texts > 0;
}

/* The parts of the command line's question. Texts that follow each other are one text, byte for byte; without any text
 * standard input is one. */
static int question_parts(const arguments *a, message_part **parts, int *n)
{
    message_part *p = NULL;
    for (int i = 0; i < a->n_inputs; i++) {
        const input *in = &a->inputs[i];
        g4_part_kind kind = input_part(in->kind);
        int status = DONE, joins = kind == G4_PART_TEXT && p != NULL && p->kind == G4_PART_TEXT;
        if (!joins) p = part_add(parts, n, kind);
        if (p == NULL) return FAILED;
        p->budget = in->budget;
        if (in->kind == INPUT_FILE)
            status = text_read(in->value, &p->text);
        else
            buffer_str(&p->text, in->value);
        if (status != DONE) return status;
    }
    if (has_text(a)) return DONE;
    p = part_add(parts, n, G4_PART_TEXT);
    return p != NULL ? text_read("-", &p->text) : FAILED;
}

static int ask(conversation *c)
{
    message_part *parts = NULL;
    int n = 0, status = question_parts(c->args, &parts, &n);
    if (status == DONE) return message_add(c, G4_ROLE_USER, parts, n);
    parts_free(parts, n);
    return status;
}

/* The media of the command line go with the user's first message. */
static int attach_inputs(conversation *c)
{
    int status = DONE;
    for (int i = 0; status == DONE && i < c->args->n_inputs; i++) {
        const input *in = &c->args->inputs[i];
        status = talk_attach(c, input_part(in->kind), in->value, in->budget);
    }
    return status;
}

static int answer_chat(conversation *c)
{
    const arguments *a = c->args;
    c->on_terminal = a->messages == NULL && !has_text(a) && isatty(STDIN_FILENO);
    int status = a->messages != NULL ? document_read(c) : DONE;
    if (status == DONE) status = conversation_guide(c);
    if (status == DONE) status = conversation_open(c, a->session);
    if (status == DONE && a->system != NULL) status = talk_system(c, a->system);
    if (c->on_terminal) {
        if (status == DONE) status = attach_inputs(c);
        if (status == DONE) status = talk(c);
    } else {
        if (status == DONE && a->messages == NULL) status = ask(c);
        if (status == DONE) status = conversation_answer(c);
    }
    if (status == DONE && a->session != NULL) status = conversation_save(c, a->session);
    return status;
}

/* ---- An answer ------------------------------------------------------------------------------------------- */

/* The first of the given options that needs what raw text does not have, or NULL. */
static const char *chat_option(const arguments *a)
{
    const struct {
        int given;
        const char *name;
    } chat_options[] = {
        { a->think, "--think" },         { a->system != NULL, "--system" }, { a->messages != NULL, "--messages" },
        { a->tools != NULL, "--tools" }, { a->boxes != NULL, "--boxes" },
    };
    for (int i = 0; i < a->n_inputs; i++) {
        if (a->inputs[i].kind == INPUT_IMAGE) return "--image";
        if (a->inputs[i].kind == INPUT_AUDIO) return "--audio";
        if (a->inputs[i].kind == INPUT_VIDEO) return "--video";
    }
    for (size_t i = 0; i < sizeof chat_options / sizeof chat_options[0]; i++) {
        if (chat_options[i].given) return chat_options[i].name;
    }
    return NULL;
}

/* Do the options of an answer go together? */
static int check_options(const arguments *a)
{
    if (a->raw && chat_option(a) != NULL) {
        return say(USAGE, "%s belongs to the chat template, which --raw leaves out", chat_option(a));
    }
    if (a->json_schema != NULL && a->grammar != NULL) return say(USAGE, "give --json-schema or --grammar, not both");
    if (a->tool_choice != NULL && a->tools == NULL && a->messages == NULL) {
        return say(USAGE, "--tool-choice needs --tools");
    }
    if (a->media_root != NULL && a->messages == NULL) return say(USAGE, "--media-root needs --messages");
    if (a->messages != NULL && (a->n_inputs > 0 || a->session != NULL || a->system != NULL || a->tool_exec != NULL)) {
        return say(USAGE, "--messages holds the whole conversation: no prompt, --system, --session or --tool-exec");
    }
    return DONE;
}

/* Do they go with the model? */
static int check_model(const arguments *a, const g4_engine_info *info, int raw)
{
    for (int i = 0; i < a->n_bias; i++) {
        if (a->bias[i].token >= info->n_vocab) {
            return say(FAILED, "--logit-bias: token id %d is out of range: the vocabulary ends at %d",
                       (int)a->bias[i].token, info->n_vocab - 1);
        }
    }
    if (raw && chat_option(a) != NULL) {
        return say(FAILED, "%s is a base model: it has no chat template, so no %s", info->name, chat_option(a));
    }
    if (!raw && a->specials) return say(USAGE, "--specials needs --raw");
    if (raw && !a->raw && !a->quiet) say(DONE, "%s is a base model: it continues the text, as with --raw", info->name);
    return DONE;
}

static int run_answer(arguments *a)
{
    conversation c = { .args = a, .thinking = a->think != 0 };
    int status = check_options(a);
    if (status == DONE) status = model_open(&c.engine, a);
    if (status != DONE) return status;
    g4_engine_get_info(c.engine, &c.info);
    c.raw = a->raw || !c.info.is_chat;
    status = check_model(a, &c.info, c.raw);
    if (status == DONE) {
        loader_start(&c.loader, c.engine, !a->quiet && a->n_inputs > 0 && isatty(STDERR_FILENO));
        status = c.raw ? answer_raw(&c) : answer_chat(&c);
    }
    conversation_free(&c);
    return status;
}

/* ---- main ------------------------------------------------------------------------------------------------- */

static const command commands[] = {
    { "", run_answer, FOR_ANSWER, "-m MODEL [-p TEXT | -f FILE]...",
      "answer a prompt; without one, chat (on a terminal) or read standard input" },
    { "info", run_info, FOR_INFO, "-m MODEL [-c N]", "what the model is and the memory it needs" },
    { "bench", run_bench, FOR_BENCH, "-m MODEL [--lengths LIST]", "speed of reading and of answering" },
    { "tokenize", run_tokenize, FOR_TOKENIZE, "-m MODEL [-f FILE]", "token ids of FILE or standard input" },
    { "detokenize", run_detokenize, FOR_DETOKENIZE, "-m MODEL [-f FILE]",
      "bytes of the token ids in FILE or standard input" },
    { "render", run_render, FOR_RENDER, "-m MODEL < JSON",
      "the prompt of a conversation, as the chat template makes it" },
    { "perplexity", run_perplexity, FOR_PERPLEXITY, "-m MODEL -f TEXT", "how well the model predicts a text" },
    { "logits", run_logits, FOR_LOGITS, "-m MODEL --tokens LIST (-o FILE | --dump FILE)", "scores of the next token" },
    { "encode", run_encode, FOR_ENCODE, "-m MODEL (--image F | --audio F | --video F) -o FILE",
      "soft tokens of a picture, a sound or a video" },
    { "mel", run_mel, FOR_MEL, "-f WAV -o FILE", "log-mel frames of a sound, as the audio tower reads them" },
    { "patches", run_patches, FOR_PATCHES, "-f PICTURE -o FILE",
      "patches of a picture, as the vision tower reads them" },
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static int print_help(const command *c)
{
    buffer b = { 0 };
    buffer_fmt(&b, "usage: gemma4%s%s %s\n%s.\n", c->name[0] != '\0' ? " " : "", c->name, c->usage, c->help);
    if (c->name[0] == '\0') {
        buffer_str(&b, "\ncommands (gemma4 COMMAND --help says more):\n");
        for (int i = 1; i < N_COMMANDS; i++) buffer_fmt(&b, "  %-12s%s\n", commands[i].name, commands[i].help);
    }
    buffer_str(&b, "\noptions:\n");
    for (int i = 0; i < N_OPTIONS; i++) {
        const option *o = &options[i];
        char left[64];
        if ((o->commands & c->bit) == 0) continue;
        snprintf(left, sizeof left, "%s%s%s%s%s", o->letter != NULL ? o->letter : "",
                 o->letter != NULL && o->name != NULL ? ", " : "", o->name != NULL ? o->name : "",
                 o->value != NULL && o->value[0] != '[' ? " " : "", o->value != NULL ? o->value : "");
        buffer_fmt(&b, "  %-24s %s\n", left, o->help);
    }
    buffer_str(&b, "\nExit status: 0 done, 1 a file, a model or the run failed, 2 wrong usage, 130 interrupted.\n");
    int status = print_buffer(&b);
    buffer_free(&b);
    return status;
}

/* The command that `name` names, NULL when there is none. */
static const command *find_command(const char *name)
{
    for (int i = 1; i < N_COMMANDS; i++) {
        if (strcmp(name, commands[i].name) == 0) return &commands[i];
    }
    return NULL;
}

int main(int argc, char **argv)
{
    arguments a = { .max_tokens = -1,
                    .top_k = -1,
                    .logprobs = -1,
                    .temperature = NAN,
                    .top_p = NAN,
                    .min_p = NAN,
                    .repeat_penalty = NAN,
                    .presence_penalty = NAN,
                    .frequency_penalty = NAN };
    const command *c = &commands[0];
    int first = 1;
    watch_signals();
    if (argc > 1 && argv[1][0] != '-') {
        c = find_command(argv[1]);
        if (c == NULL) return say(USAGE, "unknown command \"%s\"; see gemma4 --help", argv[1]);
        first = 2;
    }
    a.inputs = calloc((size_t)argc + 1, sizeof *a.inputs);
    if (a.inputs == NULL) return say(FAILED, "no memory for the arguments");
    int status = parse_arguments(&a, c, argc, argv, first);
    if (status == DONE && a.help)
        status = print_help(c);
    else if (status == DONE && a.version)
        status = printf("gemma4 %s\n", G4_VERSION) < 0 || fflush(stdout) != 0;
    else if (status == DONE)
        status = c->run(&a);
    free(a.inputs);
    buffer_free(&a.found_model);
    return status;
}
