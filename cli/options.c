/* options.c - the command line: which command it means, its options and their values, and the words between them. A word
 * is the name of a command, a model, or a part of the question; what people type out of habit from elsewhere is told
 * from both, and answered with what it is called here. */
#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Texts of our own ---------------------------------------------------------------------------------- */

char *arguments_keep(arguments *a, buffer *b)
{
    char **grown = b->failed ? NULL : realloc(a->kept, ((size_t)a->n_kept + 1) * sizeof *grown);
    if (grown == NULL) {
        buffer_free(b);
        say(FAILED, "no memory for the arguments");
        return NULL;
    }
    buffer_add(b, "", 0); /* an empty text has its NUL too */
    a->kept = grown;
    grown[a->n_kept++] = b->data;
    *b = (buffer) { 0 };
    return grown[a->n_kept - 1];
}

void arguments_free(arguments *a)
{
    for (int i = 0; i < a->n_kept; i++) free(a->kept[i]);
    free(a->kept);
    free(a->given);
    free(a->inputs);
    buffer_free(&a->found_model);
}

/* ---- Values --------------------------------------------------------------------------------------------- */

typedef struct { /* an option, what is to become of it, and where that was said: "" is the command line */
    const option *o;
    const char *value, *where;
} setting;

static int *int_field(arguments *a, const option *o) { return (int *)(void *)((char *)a + o->target); }
static double *number_field(arguments *a, const option *o) { return (double *)(void *)((char *)a + o->target); }
static const char **text_field(arguments *a, const option *o) { return (const char **)(void *)((char *)a + o->target); }

static const char *option_name(const option *o) { return o->letter != NULL ? o->letter : o->name; }

static int wrong_value(const setting *s, const char *wanted)
{
    return say(USAGE, "%s%s needs %s, not \"%s\"", s->where, s->where[0] == '\0' ? option_name(s->o) : s->o->name,
               wanted, s->value);
}

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

static int set_int(const setting *s, int *field)
{
    char wanted[96];
    int has_max = s->o->kind == OPTION_CONTEXT;
    snprintf(wanted, sizeof wanted, "a whole number from %.0f to %.0f%s", s->o->min, s->o->max,
             has_max ? ", or max" : "");
    if (has_max && strcmp(s->value, "max") == 0)
        *field = CONTEXT_MAX;
    else if (parse_whole(s->value, s->o->min, s->o->max, field))
        return wrong_value(s, wanted);
    return DONE;
}

static int set_number(const setting *s, double *field)
{
    char wanted[96];
    double x = 0;
    snprintf(wanted, sizeof wanted, "a number from %g to %g", s->o->min, s->o->max);
    if (parse_number(s->value, &x) || x < s->o->min || x > s->o->max) return wrong_value(s, wanted);
    *field = x;
    return DONE;
}

/* 64 bits that nobody foresees. */
static int draw_seed(uint64_t *seed)
{
    FILE *f = fopen("/dev/urandom", "rb");
    int drawn = f != NULL && fread(seed, sizeof *seed, 1, f) == 1;
    if (f != NULL) fclose(f);
    return drawn ? DONE : say(FAILED, "cannot read /dev/urandom for a random seed: %s", strerror(errno));
}

static int set_seed(arguments *a, const setting *s)
{
    char *end;
    a->random_seed = strcmp(s->value, "random") == 0;
    a->has_seed = 1;
    if (a->random_seed) return draw_seed(&a->seed);
    errno = 0;
    unsigned long long seed = strtoull(s->value, &end, 10);
    if (s->value[0] < '0' || s->value[0] > '9' || *end != '\0' || errno != 0) {
        return wrong_value(s, "a whole number from 0 to 18446744073709551615, or random");
    }
    a->seed = seed;
    return DONE;
}

static int set_path(arguments *a, const setting *s, const char **field)
{
    buffer path = { 0 };
    int is_model = field == &a->model, status = is_model ? path_read(s->value, &path) : path_expand(s->value, &path);
    if (status == DONE && path.len == 0) status = wrong_value(s, "a name");
    if (status == DONE) {
        *field = arguments_keep(a, &path);
        status = *field != NULL ? DONE : FAILED;
    }
    buffer_free(&path);
    return status;
}

/* Pictures and videos take the budget that was given before them, or else the next one. */
static int add_input(arguments *a, input_kind kind, const char *value)
{
    buffer path = { 0 };
    int status = kind == INPUT_TEXT ? DONE : path_read(value, &path);
    if (status == DONE && kind != INPUT_TEXT) value = arguments_keep(a, &path);
    if (status == DONE && value != NULL)
        a->inputs[a->n_inputs++] = (input) { kind, value, media_budget(a, input_part(kind)) };
    buffer_free(&path);
    return status == DONE && value == NULL ? FAILED : status;
}

static int add_stop(arguments *a, const setting *s)
{
    if (s->value[0] == '\0') return wrong_value(s, "a text that is not empty");
    if (a->n_stop == MAX_LIST) return say(USAGE, "%smore than %d of --stop", s->where, MAX_LIST);
    a->stop[a->n_stop++] = s->value;
    return DONE;
}

static int add_bias(arguments *a, const setting *s)
{
    char *end;
    double x = 0;
    long id = strtol(s->value, &end, 10);
    if (end == s->value || *end != ':' || id < 0 || id > INT_MAX || parse_number(end + 1, &x)) {
        return wrong_value(s, "ID:X, a token id and a number");
    }
    if (a->n_bias == MAX_LIST) return say(USAGE, "%smore than %d of --logit-bias", s->where, MAX_LIST);
    a->bias[a->n_bias++] = (g4_logit_bias) { (g4_token)id, (float)x };
    return DONE;
}

static int set_kv(const setting *s, int *field)
{
    if (strcmp(s->value, "f16") == 0)
        *field = G4_KV_USE_F16;
    else if (strcmp(s->value, "f32") == 0)
        *field = G4_KV_USE_F32;
    else if (strcmp(s->value, "q8_0") == 0)
        *field = G4_KV_USE_Q8_0;
    else
        return wrong_value(s, "f16, f32 or q8_0");
    return DONE;
}

static int set_budget(arguments *a, const setting *s, int *field)
{
    static const int budgets[] = { 70, 140, 280, 560, 1120 };
    double x = 0;
    int known = 0;
    for (size_t i = 0; !parse_number(s->value, &x) && i < sizeof budgets / sizeof budgets[0]; i++) {
        known |= x == budgets[i];
    }
    if (!known) return wrong_value(s, "70, 140, 280, 560 or 1120");
    *field = (int)x;
    for (int i = 0; i < a->n_inputs; i++) {
        if (a->inputs[i].budget == 0) a->inputs[i].budget = media_budget(a, input_part(a->inputs[i].kind));
    }
    return DONE;
}

static int set_think(const setting *s, int *field)
{
    int limit = 0;
    if (s->value != NULL && parse_whole(s->value, 1, INT_MAX - 1, &limit))
        return wrong_value(s, "a whole number from 1");
    *field = 1 + limit;
    return DONE;
}

static int set_json(const setting *s, int *field)
{
    if (s->value != NULL && strcmp(s->value, "openai") != 0) return wrong_value(s, "openai, or nothing");
    *field = s->value != NULL ? JSON_OPENAI : 1;
    return DONE;
}

int option_set(arguments *a, const option *o, const char *value, const char *where)
{
    const setting s = { o, value, where };
    switch (o->kind) {
    case OPTION_HEADING: break;
    case OPTION_FLAG: *int_field(a, o) = 1; break;
    case OPTION_TEXT: *text_field(a, o) = value; break;
    case OPTION_PATH: return set_path(a, &s, text_field(a, o));
    case OPTION_INPUT: return add_input(a, (input_kind)o->target, value);
    case OPTION_INT:
    case OPTION_CONTEXT: return set_int(&s, int_field(a, o));
    case OPTION_NUMBER: return set_number(&s, number_field(a, o));
    case OPTION_SEED: return set_seed(a, &s);
    case OPTION_STOP: return add_stop(a, &s);
    case OPTION_BIAS: return add_bias(a, &s);
    case OPTION_KV: return set_kv(&s, int_field(a, o));
    case OPTION_BUDGET: return set_budget(a, &s, int_field(a, o));
    case OPTION_THINK: return set_think(&s, int_field(a, o));
    case OPTION_JSON: return set_json(&s, int_field(a, o));
    }
    return DONE;
}

const char *is_given(const arguments *a, size_t field)
{
    for (int i = 0; i < a->syntax->n_options; i++) {
        const option *o = &a->syntax->options[i];
        if (a->given[i] && o->target == field && o->kind != OPTION_INPUT) return option_name(o);
    }
    return NULL;
}

/* ---- Names ---------------------------------------------------------------------------------------------- */

enum { MAX_NAME = 32 };

/* How many letters are to be put in, left out, replaced, or swapped with their neighbours, to make b of a. */
static int distance(const char *a, const char *b)
{
    int rows[3][MAX_NAME + 1] = { { 0 } }, n = (int)strlen(a), m = (int)strlen(b);
    if (n > MAX_NAME || m > MAX_NAME) return MAX_NAME;
    for (int j = 0; j <= m; j++) rows[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *row = rows[i % 3], *above = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best) best = above[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            int swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && before[j - 2] + 1 < best) best = before[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[n % 3][m];
}

/* How far `name` is from what may be meant: a letter for the beginning of it. MAX_NAME: too far. */
static int near(const char *name, const char *meant)
{
    int n = (int)strlen(name), far = distance(name, meant);
    if (n >= 3 && strncmp(name, meant, (size_t)n) == 0) return 1;
    return far <= (n < 6 ? 1 : n / 3) ? far : MAX_NAME;
}

void add_near_option(buffer *out, const syntax *x, const char *name, unsigned bits)
{
    const char *best = NULL;
    int least = MAX_NAME;
    for (int i = 0; i < x->n_options; i++) {
        const option *o = &x->options[i];
        int far = o->name != NULL && (o->commands & bits) != 0 ? near(name, o->name + 2) : MAX_NAME;
        if (far >= least) continue;
        least = far;
        best = o->name;
    }
    if (best != NULL) buffer_fmt(out, " (do you mean %s?)", best);
}

const option *option_find(const syntax *x, const char *name, size_t len, unsigned bit)
{
    const option *found = NULL;
    for (int i = 0; i < x->n_options; i++) {
        const option *o = &x->options[i];
        int by_letter = o->letter != NULL && strlen(o->letter) == len && strncmp(name, o->letter, len) == 0;
        int by_name = o->name != NULL && strlen(o->name) == len && strncmp(name, o->name, len) == 0;
        if ((by_letter || by_name) && (found == NULL || ((o->commands & bit) != 0 && (found->commands & bit) == 0)))
            found = o;
    }
    return found;
}

const cli_command *command_find(const syntax *x, const char *name)
{
    for (int i = 1; i < x->n_commands; i++) {
        if (strcmp(name, x->commands[i].name) == 0) return &x->commands[i];
    }
    return NULL;
}

/* ---- Habits ---------------------------------------------------------------------------------------------- */

/* What it is called elsewhere, and what to do here. */
typedef struct {
    const char *name, *advice;
} habit;

static const habit option_habits[] = {
    { "-ngl", "it runs on the CPU alone; leave it and its value out" },
    { "--gpu-layers", "it runs on the CPU alone; leave it and its value out" },
    { "--n-gpu-layers", "it runs on the CPU alone; leave it and its value out" },
    { "-fa", "attention is chosen by itself; leave it and its value out" },
    { "--flash-attn", "attention is chosen by itself; leave it and its value out" },
    { "-b", "chunks are chosen by themselves; leave it and its value out" },
    { "-ub", "chunks are chosen by themselves; leave it and its value out" },
    { "-hf", "nothing is downloaded; export.py makes a model file of a hub's id" },
    { "-mu", "nothing is downloaded; export.py makes a model file of a hub's id" },
    { "-cnv", "a chat begins where there is no question; leave it out" },
    { "--conversation", "a chat begins where there is no question; leave it out" },
    { "-i", "a chat begins where there is no question; leave it out" },
    { "--interactive", "a chat begins where there is no question; leave it out" },
    { "-st", "one question gets one answer; leave it out" },
    { "--single-turn", "one question gets one answer; leave it out" },
    { "-no-cnv", "it is --raw here" },
    { "--no-cnv", "it is --raw here" },
    { "-no-conversation", "it is --raw here" },
    { "--no-conversation", "it is --raw here" },
    { "-e", "escapes are the shell's: $'a\\nb'" },
    { "--escape", "escapes are the shell's: $'a\\nb'" },
    { "--jinja", "the family's templates are built in; leave it out" },
    { "--chat-template", "the family's templates are built in; leave it and its value out" },
    { "--mmproj", "the towers are in the model file: export.py model.gguf --mmproj FILE puts them there" },
    { "-mm", "the towers are in the model file: export.py model.gguf --mmproj FILE puts them there" },
    { "--no-display-prompt", "only the answer is printed; leave it out" },
    { "--color", "only the answer is printed; leave it out" },
    { "-co", "only the answer is printed; leave it out" },
    { "--log-disable", "it is --quiet here" },
    { "-v", "it is --version here" },
    { "--verbose", "it says what it does unless there is --quiet; leave it out" },
    { "--list", "it is gemma4 models here" },
    { "--list-models", "it is gemma4 models here" },
    { "-V", "it is --version here" },
    { "-q", "it is --quiet here" },
    { "-s", "it is --seed here" },
    { "-r", "it is --stop here" },
    { "--reverse-prompt", "it is --stop here" },
    { "-sys", "it is --system here" },
    { "--sys", "it is --system here" },
    { "--system-prompt", "it is --system here" },
    { "-sysf", "it is --system \"$(cat FILE)\" here" },
    { "--n-predict", "it is -n or --max-tokens here" },
    { "--predict", "it is -n or --max-tokens here" },
    { "--ctx-size", "it is -c or --context here" },
    { "--num-ctx", "it is -c or --context here" },
    { "--temperature", "it is --temp here" },
    { "-ctk", "it is --kv here, for keys and values" },
    { "-ctv", "it is --kv here, for keys and values" },
    { "--cache-type-k", "it is --kv here, for keys and values" },
    { "--cache-type-v", "it is --kv here, for keys and values" },
    { "-tb", "it is -t here" },
    { "-bf", "it is -f here" },
    { "-j", "it is --json-schema here" },
    { "--grammar-file", "it is --grammar here" },
    { "--json-schema-file", "it is --json-schema here" },
    { "-jf", "it is --json-schema here" },
    { "--format", "it is --json-schema here, or --json for an object about the answer" },
    { "--prompt-cache", "it is --session here" },
    { "--reasoning-budget", "it is --think=N here" },
    { "--no-warmup", "there is none; leave it out" },
};
enum { N_OPTION_HABITS = sizeof option_habits / sizeof option_habits[0] };

static const habit word_habits[] = {
    { "pull", "nothing is downloaded; python3 export.py google/gemma-4-E2B-it -o e2b.g4 makes a model file" },
    { "download", "nothing is downloaded; python3 export.py google/gemma-4-E2B-it -o e2b.g4 makes a model file" },
    { "create", "python3 export.py FOLDER -o NAME.g4 makes a model file" },
    { "convert", "python3 export.py FOLDER -o NAME.g4 makes a model file" },
    { "quantize", "python3 export.py FOLDER -o NAME.g4 --type q4_0 makes a model file" },
    { "serve", "there is no server; one answer to a request is gemma4 --messages FILE --json=openai" },
    { "list", "it is gemma4 models" },
    { "ls", "it is gemma4 models" },
    { "show", "it is gemma4 info" },
    { "version", "it is gemma4 --version" },
    { "ps", "a model runs as long as its program; gemma4 models lists the files" },
    { "rm", "a model is a file; gemma4 models says where it is" },
};
enum { N_WORD_HABITS = sizeof word_habits / sizeof word_habits[0] };

static const char *advice_on(const habit *habits, int n, const char *name, size_t len)
{
    for (int i = 0; i < n; i++) {
        if (strlen(habits[i].name) == len && strncmp(habits[i].name, name, len) == 0) return habits[i].advice;
    }
    return NULL;
}

/* ---- One option ------------------------------------------------------------------------------------------- */

typedef struct {        /* an option as it stands on the command line */
    const option *o;    /* NULL: there is none of that name */
    const char *value;  /* what is joined to it; NULL: nothing */
    const char *advice; /* NULL, or what to do instead of it */
} written;

/* "--name", "--name=value", "-n", "-nVALUE". Names of two letters that are known from elsewhere are no letter with a
 * value. */
static written read_option(const syntax *x, const char *arg, unsigned bit)
{
    size_t n = strcspn(arg, "=");
    written w = { .o = option_find(x, arg, n, bit) };
    int is_long = arg[1] == '-';
    if (w.o != NULL && arg[n] == '=') w.value = arg + n + 1;
    if (w.o == NULL) w.advice = advice_on(option_habits, N_OPTION_HABITS, arg, n);
    if (w.o != NULL || w.advice != NULL || is_long) return w;
    for (int i = 0; i < x->n_options && w.o == NULL; i++) { /* -name */
        const char *name = x->options[i].name;
        if (name != NULL && strlen(name + 1) == n && strncmp(name + 1, arg, n) == 0) return w;
    }
    w.o = option_find(x, arg, 2, bit);
    if (w.o != NULL && w.o->kind == OPTION_FLAG) w.o = NULL;
    if (w.o != NULL) w.value = arg + 2;
    return w;
}

static int takes_value(const option *o)
{
    return o->kind != OPTION_FLAG && o->kind != OPTION_THINK && o->kind != OPTION_JSON;
}

static int refuse_unknown(const syntax *x, const char *arg, unsigned bit, const char *advice)
{
    buffer hint = { 0 }, name = { 0 };
    buffer_add(&name, arg, strcspn(arg, "="));
    if (advice != NULL)
        buffer_fmt(&hint, ": %s", advice);
    else
        add_near_option(&hint, x, buffer_text(&name) + (arg[1] == '-' ? 2 : 1), bit);
    if (hint.len == 0) buffer_str(&hint, "; see gemma4 --help");
    int status = say(USAGE, "unknown option %s%s", buffer_text(&name), buffer_text(&hint));
    buffer_free(&hint);
    buffer_free(&name);
    return status;
}

static int refuse_elsewhere(const cli_command *c, const char *arg)
{
    int n = (int)strcspn(arg, "=");
    if (c->name[0] == '\0') return say(USAGE, "%.*s is not an option of an answer; see gemma4 help run", n, arg);
    return say(USAGE, "%.*s is not an option of %s; see gemma4 help %s", n, arg, c->name, c->name);
}

/* Set the option at argv[*i], and step over its value. */
static int take_option(arguments *a, const cli_command *c, int argc, char **argv, int *i)
{
    const char *arg = argv[*i];
    written w = read_option(a->syntax, arg, c->bit);
    if (w.o == NULL) return refuse_unknown(a->syntax, arg, c->bit, w.advice);
    if ((w.o->commands & c->bit) == 0) return refuse_elsewhere(c, arg);
    if (w.o->kind == OPTION_FLAG && w.value != NULL) return say(USAGE, "%s takes no value", w.o->name);
    if (arg[1] != '-' && arg[2] == '=') {
        return say(USAGE, "%s takes its value without an equals sign: %s %s", w.o->letter, w.o->letter, w.o->value);
    }
    if (takes_value(w.o) && w.value == NULL) {
        const char *next = *i + 1 < argc ? argv[*i + 1] : NULL;
        if (next == NULL) return say(USAGE, "%s needs a value: %s", arg, w.o->value);
        if (next[0] == '-' && option_find(a->syntax, next, strlen(next), c->bit) != NULL) {
            return say(USAGE, "%s needs a value: %s; if that is to be \"%s\", write %s=%s", arg, w.o->value, next,
                       w.o->name, next);
        }
        w.value = next;
        *i += 1;
    }
    a->given[w.o - a->syntax->options] = 1;
    return option_set(a, w.o, w.value, "");
}

/* ---- Words ------------------------------------------------------------------------------------------------- */

typedef struct { /* the words of the question, with blanks between them */
    buffer text;
    const char *first;
    int n, place; /* place: of the text among the inputs */
} question;

static int ends_with(const char *word, const char *end)
{
    size_t n = strlen(word), m = strlen(end);
    return n > m && strcmp(word + n - m, end) == 0;
}

/* A model file, whether it is there or not, or a checkpoint: then it is told how it becomes one. */
static int names_model(const char *word)
{
    buffer config = { 0 };
    if (strpbrk(word, " \t\n") != NULL) return ends_with(word, ".g4") && access(word, F_OK) == 0;
    if (ends_with(word, ".g4") || ends_with(word, ".gguf")) return 1;
    buffer_fmt(&config, "%s/config.json", word);
    int is_checkpoint = !config.failed && access(config.data, F_OK) == 0;
    buffer_free(&config);
    return is_checkpoint;
}

/* The place of the word that names the command, 0: none does. It is the first one that is no model. */
static int find_command_word(const syntax *x, int argc, char **argv, const cli_command **c)
{
    *c = &x->commands[0];
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (argv[i][0] == '-' && argv[i][1] != '\0') {
            written w = read_option(x, argv[i], ~0u);
            i += w.o != NULL && takes_value(w.o) && w.value == NULL;
        } else if (!names_model(argv[i])) {
            const cli_command *named = command_find(x, argv[i]);
            if (named != NULL) *c = named;
            return named != NULL ? i : 0;
        }
    }
    return 0;
}

static int take_model(arguments *a, const cli_command *c, const char *word)
{
    const option *o = option_find(a->syntax, "--model", strlen("--model"), c->bit);
    if ((o->commands & c->bit) == 0) return say(USAGE, "what is \"%s\"? gemma4 %s takes no model", word, c->name);
    a->given[o - a->syntax->options] = 1;
    return option_set(a, o, word, "");
}

/* The option that shows a medium of that name to the model; NULL: it is called like none. */
static const char *option_for_medium(const char *name)
{
    static const char *const endings[][2] = {
        { ".png", "--image" },  { ".jpg", "--image" },  { ".jpeg", "--image" }, { ".webp", "--image" },
        { ".gif", "--image" },  { ".bmp", "--image" },  { ".ppm", "--image" },  { ".heic", "--image" },
        { ".avif", "--image" }, { ".tiff", "--image" }, { ".wav", "--audio" },  { ".mp3", "--audio" },
        { ".flac", "--audio" }, { ".ogg", "--audio" },  { ".m4a", "--audio" },  { ".mp4", "--video" },
        { ".mkv", "--video" },  { ".mov", "--video" },  { ".webm", "--video" }, { ".y4m", "--video" },
    };
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        if (ends_with(name, endings[i][0])) return endings[i][1];
    }
    return NULL;
}

static int is_plain_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* A word, which behind -- (then it is not free) is a part of the question whatever it looks like. */
static int take_word(arguments *a, const cli_command *c, question *q, const char *word, int is_free)
{
    int is_prompt = c->words == WORDS_PROMPT;
    if (c->words == WORDS_TOPIC && a->topic == NULL) {
        a->topic = word;
        return DONE;
    }
    int is_model_of_run = strcmp(c->name, "run") == 0 && a->model == NULL && q->n == 0 && strchr(word, ' ') == NULL;
    if (is_free && (names_model(word) || is_model_of_run)) return take_model(a, c, word);
    if (is_prompt && strcmp(word, "-") == 0 && is_free) return add_input(a, INPUT_FILE, word);
    if (!is_prompt) return say(USAGE, "what is \"%s\"? See gemma4 help %s", word, c->name);
    const char *shown_by = is_free ? option_for_medium(word) : NULL;
    if (shown_by != NULL && is_plain_file(word)) return say(USAGE, "%s is a file: give it with %s", word, shown_by);
    if (q->n == 0) {
        q->first = word;
        q->place = a->n_inputs;
        a->inputs[a->n_inputs++] = (input) { .kind = INPUT_TEXT };
    }
    if (q->n++ > 0) buffer_str(&q->text, " ");
    buffer_str(&q->text, word);
    return DONE;
}

/* The command that a single word may have been meant to be, NULL: none. */
static const cli_command *near_command(const syntax *x, const char *word)
{
    for (int i = 1; i < x->n_commands; i++) {
        if (strlen(word) > 3 && near(word, x->commands[i].name) != MAX_NAME) return &x->commands[i];
    }
    return NULL;
}

/* Was it meant as a question? What stands behind -- is one. */
static int check_question(const arguments *a, const cli_command *c, const question *q)
{
    const char *word = q->first, *advice = advice_on(word_habits, N_WORD_HABITS, word, strlen(word));
    const cli_command *meant = q->n == 1 ? near_command(a->syntax, word) : NULL;
    if (c->name[0] == '\0' && q->n <= 2 && advice != NULL)
        return say(USAGE, "there is no command %s: %s (gemma4 -p %s asks the model)", word, advice, word);
    if (c->name[0] == '\0' && meant != NULL)
        return say(USAGE, "there is no command %s: do you mean %s? (gemma4 -p %s asks the model)", word, meant->name,
                   word);
    if (q->n == 1 && strchr(word, '.') != NULL && is_plain_file(word))
        return say(USAGE, "%s is a file: give it with -f", word);
    for (int i = 0; i < a->n_inputs; i++) {
        if (i != q->place && a->inputs[i].kind == INPUT_TEXT)
            return say(USAGE, "what is \"%s\"? A text of several words stands in quotes behind -p", q->first);
    }
    return DONE;
}

/* Options and words, but for the one at `at`, which named the command. */
static int take_all(arguments *a, const cli_command *c, int argc, char **argv, int at, question *q)
{
    int status = DONE, i = 1;
    for (; status == DONE && i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (argv[i][0] == '-' && argv[i][1] != '\0')
            status = take_option(a, c, argc, argv, &i);
        else if (i != at)
            status = take_word(a, c, q, argv[i], 1);
    }
    if (status == DONE && q->n > 0) status = check_question(a, c, q);
    for (i++; status == DONE && i < argc; i++) status = take_word(a, c, q, argv[i], 0);
    return status;
}

int arguments_read(arguments *a, int argc, char **argv, const cli_command **out)
{
    question q = { 0 };
    int at = find_command_word(a->syntax, argc, argv, out);
    a->inputs = calloc((size_t)argc + 1, sizeof *a->inputs);
    a->given = calloc((size_t)a->syntax->n_options, 1);
    if (a->inputs == NULL || a->given == NULL) return say(FAILED, "no memory for the arguments");
    int status = take_all(a, *out, argc, argv, at, &q);
    if (status == DONE && q.n > 0) {
        a->inputs[q.place].value = arguments_keep(a, &q.text);
        if (a->inputs[q.place].value == NULL) status = FAILED;
    }
    buffer_free(&q.text);
    return status;
}
