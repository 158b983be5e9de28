/* words.c - the command line, word by word: which command it means, its options, and the words between them. A word is
 * the name of a command, a model, or a part of the question. What people type out of habit from elsewhere is told from
 * both, and answered with what it is called here. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
    { "--hf-repo", "nothing is downloaded; export.py makes a model file of a hub's id" },
    { "--model-url", "nothing is downloaded; export.py makes a model file of a hub's id" },
    { "--lora", "merge the adapter into its model, and convert that with export.py" },
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
    { "--prompt-file", "it is -f here" },
    { "-j", "it is --json-schema here" },
    { "--grammar-file", "it is --grammar here" },
    { "--json-schema-file", "it is --json-schema here" },
    { "-jf", "it is --json-schema here" },
    { "--format", "it is --json-schema here, or --json for an object about the answer" },
    { "--prompt-cache", "it is --session here" },
    { "--reasoning-budget", "it is --think=N here" },
    { "--no-warmup", "there is none; leave it out" },
    { "--stream", "an answer is printed as it comes; leave it out" },
    { "--verbose-prompt", "gemma4 render shows a prompt, gemma4 tokenize its tokens" },
    { "--keepalive", "a model runs as long as its program; leave it and its value out" },
    { "--nowordwrap", "lines are not broken; leave it out" },
    { "--hidethinking", "thoughts are hidden unless there is --show-thoughts; leave it out" },
    { "--embedding", "there are no embeddings of texts" },
    { "--embeddings", "there are no embeddings of texts" },
};
enum { N_OPTION_HABITS = sizeof option_habits / sizeof option_habits[0] };

static const habit word_habits[] = {
    { "pull", "nothing is downloaded; python3 export.py google/gemma-4-E2B-it -o e2b.g4 makes a model file" },
    { "download", "nothing is downloaded; python3 export.py google/gemma-4-E2B-it -o e2b.g4 makes a model file" },
    { "create", "python3 export.py FOLDER -o NAME.g4 makes a model file" },
    { "convert", "python3 export.py FOLDER -o NAME.g4 makes a model file" },
    { "quantize", "python3 export.py FOLDER -o NAME.g4 --type q4_0 makes a model file" },
    { "list", "it is gemma4 models" },
    { "ls", "it is gemma4 models" },
    { "show", "it is gemma4 info" },
    { "version", "it is gemma4 --version" },
    { "ps", "a model runs as long as its program; gemma4 models lists the files" },
    { "stop", "a model runs as long as its program" },
    { "rm", "a model is a file; gemma4 models says where it is" },
    { "cp", "a model is a file; gemma4 models says where it is" },
    { "embed", "there are no embeddings of texts" },
    { "completion", "it is gemma4 help --completions bash, zsh or fish" },
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
    if (word[0] == '\0') return 0;
    buffer_fmt(&config, "%s/config.json", word);
    int is_checkpoint = !config.failed && access(config.data, F_OK) == 0;
    buffer_free(&config);
    return is_checkpoint;
}

/* Is a word written as names of models are elsewhere: gemma4:e2b, google/gemma-4-E2B-it, e2b? */
static int is_like_model(const char *word)
{
    static const char digits[] = "0123456789";
    static const char all[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/";
    int is_number = word[strspn(word, digits)] == '\0';
    return word[strspn(word, all)] == '\0' && word[strcspn(word, ":/0123456789")] != '\0' && !is_number;
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

/* Behind `run` a model may stand without its ending: one that is found, or what can be nothing else. */
static int is_model_of_run(const char *word)
{
    buffer found = { 0 };
    int is_model = is_like_model(word) || (strpbrk(word, " \t\n") == NULL && model_find(word, &found));
    buffer_free(&found);
    return is_model;
}

static int take_requests(arguments *a, const char *word)
{
    buffer path = { 0 };
    int status = path_read(word, &path);
    if (status == DONE) a->requests = arguments_keep(a, &path);
    buffer_free(&path);
    return status == DONE && a->requests == NULL ? FAILED : status;
}

/* A word, which behind -- (then it is not free) is a part of the question whatever it looks like. */
static int take_word(arguments *a, const cli_command *c, question *q, const char *word, int is_free)
{
    int is_prompt = c->words == WORDS_PROMPT;
    if (c->words == WORDS_TOPIC && a->topic == NULL) {
        a->topic = word;
        return DONE;
    }
    if (c->words == WORDS_REQUESTS && a->requests == NULL && !(is_free && names_model(word)))
        return take_requests(a, word);
    int may_be_model = strcmp(c->name, "run") == 0 && a->model == NULL && q->n == 0;
    if (is_free && (names_model(word) || (may_be_model && is_model_of_run(word)))) return take_model(a, c, word);
    if (is_prompt && strcmp(word, "-") == 0 && is_free) {
        return option_set(a, option_find(a->syntax, "--file", strlen("--file"), c->bit), word, "");
    }
    if (!is_prompt) return say(USAGE, "what is \"%s\"? See gemma4 help %s", word, c->name);
    const char *shown_by = is_free ? option_for_medium(word) : NULL;
    if (is_free && shown_by == NULL && strchr(word, '.') != NULL) shown_by = "-f";
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

/* The command that is a letter away from a single word, or begins with it; NULL: none. */
static const cli_command *near_command(const syntax *x, const char *word)
{
    for (int i = 1; i < x->n_commands; i++) {
        if (strlen(word) > 3 && name_near(word, x->commands[i].name) <= 1) return &x->commands[i];
    }
    return NULL;
}

/* The question is asked; where it may have been meant for a command, a line will say what that is. */
static int hint_at(arguments *a, buffer *hint)
{
    a->hint = arguments_keep(a, hint);
    return a->hint != NULL ? DONE : FAILED;
}

/* Is it a question, or what another program would do with a model? `second` is the word behind the first, or NULL. */
static int check_command(arguments *a, const question *q)
{
    const char *word = q->first, *advice = advice_on(word_habits, N_WORD_HABITS, word, strlen(word));
    const char *second = q->n == 2 ? buffer_text(&q->text) + strlen(word) + 1 : NULL;
    const cli_command *meant = q->n == 1 ? near_command(a->syntax, word) : NULL;
    buffer hint = { 0 };
    if (advice != NULL && second != NULL && is_like_model(second))
        return say(USAGE, "there is no command %s: %s (gemma4 -p '%s' asks the model)", word, advice,
                   buffer_text(&q->text));
    if (advice != NULL && q->n == 1)
        buffer_fmt(&hint, "asked as a question; for the command %s: %s", word, advice);
    else if (meant != NULL)
        buffer_fmt(&hint, "asked as a question; the command is %s", meant->name);
    return hint.len > 0 ? hint_at(a, &hint) : DONE;
}

/* Behind `run`, was the first word to be a model? The default one answers then. */
static int check_run(arguments *a, const question *q)
{
    buffer hint = { 0 };
    if (a->model != NULL || strpbrk(q->first, " \t\n") != NULL) return DONE;
    buffer_fmt(&hint, "asked as a question; there is no model %s", q->first);
    return hint_at(a, &hint);
}

/* Was it meant as a question? What stands behind -- is one. */
static int check_question(arguments *a, const cli_command *c, const question *q)
{
    int status = c->name[0] == '\0' ? check_command(a, q) : DONE;
    if (status == DONE && strcmp(c->name, "run") == 0) status = check_run(a, q);
    if (status != DONE) return status;
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
    a->command = *out;
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
