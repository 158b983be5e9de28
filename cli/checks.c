/* checks.c - whether what the command line says goes together, before any work begins: options that exclude or need
 * each other, standard input wanted twice, output that has nowhere to go; and options that change nothing. */
#include "cli.h"

#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- What there is ----------------------------------------------------------------------------------------- */

static int count_inputs(const arguments *a, g4_part_kind kind)
{
    int n = 0;
    for (int i = 0; i < a->n_inputs; i++) n += input_part(a->inputs[i].kind) == kind;
    return n;
}

int inputs_have_text(const arguments *a) { return count_inputs(a, G4_PART_TEXT) > 0; }

int inputs_want_text(const arguments *a)
{
    for (int i = 0; i < a->n_inputs; i++) {
        if (input_part(a->inputs[i].kind) == G4_PART_TEXT || strcmp(a->inputs[i].value, "-") == 0) return 0;
    }
    return 1;
}

int inputs_are_words(const arguments *a)
{
    for (int i = 0; i < a->n_inputs; i++) {
        if (a->inputs[i].kind != INPUT_TEXT) return 0;
    }
    return a->n_inputs > 0;
}

/* The i-th option that reads standard input, NULL past the last. */
static const char *stdin_reader(const arguments *a, int i)
{
    static const char *const names[] = { "-p", "-f", "--image", "--audio", "--video" };
    const struct {
        const char *value, *name;
    } others[] = {
        { a->messages, "--messages" },       { a->requests, "FILE" },     { a->tools, "--tools" },
        { a->json_schema, "--json-schema" }, { a->grammar, "--grammar" },
    };
    for (int k = 0; k < a->n_inputs; k++) {
        const input *in = &a->inputs[k];
        if (in->kind != INPUT_TEXT && strcmp(in->value, "-") == 0 && i-- == 0) return names[in->kind];
    }
    for (size_t k = 0; k < sizeof others / sizeof others[0]; k++) {
        if (others[k].value != NULL && strcmp(others[k].value, "-") == 0 && i-- == 0) return others[k].name;
    }
    return NULL;
}

/* Is it, as far as that can be known without the model, a chat on a terminal? */
static int is_chat(const arguments *a)
{
    return a->command->run == a->syntax->commands[0].run && a->messages == NULL && !a->raw && !inputs_have_text(a) &&
           isatty(STDIN_FILENO);
}

/* May media, tools and thoughts still come, from a document or from the user of a chat? */
static int is_open(const arguments *a)
{
    return a->messages != NULL || a->requests != NULL || a->session != NULL || is_chat(a);
}

static int lacks_chat(const arguments *a) { return !is_chat(a); }
static int lacks_turns(const arguments *a) { return a->session == NULL && !is_chat(a); }
static int lacks_picture(const arguments *a) { return !is_open(a) && count_inputs(a, G4_PART_IMAGE) == 0; }
static int lacks_video(const arguments *a) { return !is_open(a) && count_inputs(a, G4_PART_VIDEO) == 0; }
static int lacks_sight(const arguments *a) { return lacks_picture(a) && lacks_video(a); }
static int lacks_media(const arguments *a) { return !is_open(a) && count_inputs(a, G4_PART_TEXT) == a->n_inputs; }
static int has_fps(const arguments *a) { return a->fps > 0; }
static int lacks_tool_exec(const arguments *a) { return a->tool_exec == NULL; }
static int lacks_tools(const arguments *a) { return a->tools == NULL && !is_open(a); }
static int lacks_schema(const arguments *a) { return a->json_schema == NULL && a->tools == NULL && !is_open(a); }
static int lacks_thought(const arguments *a) { return a->think == 0 && !is_open(a); }
static int has_json(const arguments *a) { return a->json; }
static int is_raw(const arguments *a) { return a->raw; }
static int is_greedy(const arguments *a) { return a->temperature == 0; }
static int takes_best(const arguments *a) { return a->top_k == 1; }
static int is_of_command(const arguments *a) { return a->topic != NULL || a->completions != NULL; }
static int lacks_output(const arguments *a) { return a->output == NULL; }

/* ---- Options without effect ---------------------------------------------------------------------------------- */

static const struct {
    size_t field; /* of the option */
    int (*is_idle)(const arguments *);
    const char *why;
} idle_options[] = {
    { FIELD(image_tokens), lacks_picture, "there is no picture" },
    { FIELD(frame_tokens), lacks_video, "there is no video" },
    { FIELD(frames), lacks_video, "there is no video" },
    { FIELD(frames), has_fps, "--fps says which frames" },
    { FIELD(fps), lacks_video, "there is no video" },
    { FIELD(frame_times), lacks_video, "there is no video" },
    { FIELD(no_video_audio), lacks_video, "there is no video" },
    { FIELD(ffmpeg), lacks_media, "there are no media" },
    { FIELD(max_pixels), lacks_sight, "there is no picture and no video" },
    { FIELD(max_file), lacks_media, "there are no media" },
    { FIELD(tool_exec), lacks_tools, "there are no --tools" },
    { FIELD(yes), lacks_tool_exec, "there is no --tool-exec" },
    { FIELD(strict_schema), lacks_schema, "there is no schema" },
    { FIELD(closed_schema), lacks_schema, "there is no schema" },
    { FIELD(show_thoughts), lacks_thought, "there are no thoughts without --think" },
    { FIELD(show_thoughts), has_json, "--json has them as \"reasoning\"" },
    { FIELD(no_guard), is_raw, "raw text is not guarded" },
    { FIELD(seed), is_greedy, "--temp 0 leaves nothing to chance" },
    { FIELD(top_k), is_greedy, "--temp 0 takes the best token" },
    { FIELD(top_p), is_greedy, "--temp 0 takes the best token" },
    { FIELD(min_p), is_greedy, "--temp 0 takes the best token" },
    { FIELD(seed), takes_best, "--top-k 1 leaves nothing to chance" },
    { FIELD(temperature), takes_best, "--top-k 1 takes the best token" },
    { FIELD(top_p), takes_best, "--top-k 1 takes the best token" },
    { FIELD(min_p), takes_best, "--top-k 1 takes the best token" },
    { FIELD(context_shift), lacks_turns, "one question has no older turns; a chat and --session have" },
    { FIELD(no_history), lacks_chat, "only a chat keeps the lines that were typed" },
    { FIELD(man), is_of_command, "there is one man page, of all commands" },
    { FIELD(all), lacks_output, "only the file of -o has positions to choose" },
};

/* Bytes that wait on standard input, as far as that can be known without reading it. */
static int has_waiting_input(void)
{
    struct stat st;
    int n = 0;
    if (fstat(STDIN_FILENO, &st) != 0) return 0;
    if (S_ISREG(st.st_mode)) return lseek(STDIN_FILENO, 0, SEEK_CUR) < st.st_size;
    return S_ISFIFO(st.st_mode) && ioctl(STDIN_FILENO, FIONREAD, &n) == 0 && n > 0;
}

void arguments_warn(const arguments *a)
{
    if (!a->quiet && a->hint != NULL) say(DONE, "%s", a->hint);
    if (!a->quiet && inputs_have_text(a) && stdin_reader(a, 0) == NULL && has_waiting_input())
        say(DONE, "standard input is not read beside a prompt; -f - reads it");
    for (size_t i = 0; i < sizeof idle_options / sizeof idle_options[0]; i++) {
        const char *name = is_given(a, idle_options[i].field);
        if (name != NULL && idle_options[i].is_idle(a)) say(DONE, "%s has no effect: %s", name, idle_options[i].why);
    }
}

/* ---- What goes together --------------------------------------------------------------------------------------- */

const char *chat_option(const arguments *a)
{
    const struct {
        int given;
        const char *name;
    } chat_options[] = {
        { a->think, "--think" },         { a->system != NULL, "--system" }, { a->messages != NULL, "--messages" },
        { a->tools != NULL, "--tools" }, { a->boxes != NULL, "--boxes" },
    };
    for (size_t i = 0; i < sizeof chat_options / sizeof chat_options[0]; i++) {
        if (chat_options[i].given) return chat_options[i].name;
    }
    return NULL;
}

/* Is the first letter behind blanks one of those? */
static int begins_with(const char *text, const char *letters)
{
    char first = text != NULL ? text[strspn(text, " \t\r\n")] : '\0';
    return first != '\0' && strchr(letters, first) != NULL;
}

static int check_answer(const arguments *a)
{
    if (a->raw && chat_option(a) != NULL)
        return say(USAGE, "%s belongs to the chat template, which --raw leaves out", chat_option(a));
    if (a->json_schema != NULL && a->grammar != NULL) return say(USAGE, "give --json-schema or --grammar, not both");
    if (a->tool_choice != NULL && a->tools == NULL && a->messages == NULL)
        return say(USAGE, "--tool-choice needs --tools");
    if (a->context_shift && (a->raw || a->messages != NULL)) {
        return say(USAGE, "--context-shift drops turns of a chat: not with --raw or --messages");
    }
    if (a->media_root != NULL && a->messages == NULL && a->requests == NULL)
        return say(USAGE, "--media-root needs --messages");
    if (a->messages != NULL && (a->n_inputs > 0 || a->session != NULL || a->system != NULL || a->tool_exec != NULL))
        return say(USAGE, "--messages holds the whole conversation: no prompt, --system, --session or --tool-exec");
    if (a->boxes != NULL && lacks_picture(a)) return say(USAGE, "--boxes needs a picture to draw on: --image FILE");
    return DONE;
}

int requests_check(const arguments *a)
{
    if (a->requests == NULL) return say(USAGE, "which requests? Give a file with one in each line, or - for a pipe");
    if (a->max_tokens == 0) return say(USAGE, "-n 0 leaves nothing to answer");
    if (a->resume && (a->output == NULL || strcmp(a->output, "-") == 0))
        return say(USAGE, "--resume needs the file of answers that it goes on with: -o FILE");
    return DONE;
}

static int check_standard_input(const arguments *a)
{
    const char *first = stdin_reader(a, 0), *second = stdin_reader(a, 1);
    for (int i = 0; i < a->n_inputs; i++) {
        int is_medium = input_part(a->inputs[i].kind) != G4_PART_TEXT;
        if (is_medium && strcmp(a->inputs[i].value, "-") == 0 && isatty(STDIN_FILENO))
            return say(USAGE, "%s - reads standard input, and that is a terminal", first);
    }
    return second == NULL ? DONE : say(USAGE, "standard input can be read once: %s - or %s -, not both", first, second);
}

/* The folder in which a name stands; *last: the name without it. 0: there is no such folder. */
static int folder_of(const char *path, struct stat *folder, const char **last)
{
    const char *slash = strrchr(path, '/');
    buffer name = { 0 };
    buffer_add(&name, path, slash != NULL ? (size_t)(slash - path) + 1 : 0);
    *last = slash != NULL ? slash + 1 : path;
    const int found = !name.failed && stat(name.len > 0 ? name.data : ".", folder) == 0;
    buffer_free(&name);
    return found;
}

/* One file, however it is written: it is there, or would come to stand in one folder under one name. */
static int same_file(const char *a, const char *b)
{
    struct stat st, other;
    const char *last, *other_last;
    const int is_there = stat(a, &st) == 0, is_other_there = stat(b, &other) == 0;
    if (is_there != is_other_there || (is_there && !S_ISREG(st.st_mode))) return 0;
    if (is_there) return st.st_dev == other.st_dev && st.st_ino == other.st_ino;
    return folder_of(a, &st, &last) && folder_of(b, &other, &other_last) && st.st_dev == other.st_dev &&
           st.st_ino == other.st_ino && strcmp(last, other_last) == 0;
}

/* The i-th file that is read beside the model, NULL past the last. */
static const char *file_read_by(const arguments *a, int i)
{
    const char *const others[] = { a->requests,    a->messages,
                                   a->tools,       a->json_schema,
                                   a->grammar,     a->tokens != NULL && a->tokens[0] == '@' ? a->tokens + 1 : NULL,
                                   a->api_key_file };
    for (int k = 0; k < a->n_inputs; k++) {
        if (a->inputs[k].kind != INPUT_TEXT && i-- == 0) return a->inputs[k].value;
    }
    for (size_t k = 0; k < sizeof others / sizeof others[0]; k++) {
        if (others[k] != NULL && i-- == 0) return others[k];
    }
    return NULL;
}

/* Would what is written there take the place of what is read? */
static int check_output_is_new(const arguments *a, const char *path)
{
    buffer model = { 0 };
    const int is_model = model_path(a, &model) && same_file(path, model.data);
    const char *other;
    buffer_free(&model);
    if (is_model) return say(USAGE, "%s is the model: nothing is written there", path);
    for (int i = 0; (other = file_read_by(a, i)) != NULL; i++) {
        if (same_file(path, other)) return say(USAGE, "%s is read here: what is written needs a file of its own", path);
    }
    return DONE;
}

/* A batch keeps answers beside the file of answers, and makes place for them. */
static int check_beside_answers(const arguments *a)
{
    static const char *const ends[] = { ".part", ".part.tmp" };
    int status = DONE;
    for (size_t i = 0; status == DONE && i < sizeof ends / sizeof ends[0]; i++) {
        buffer name = { 0 };
        buffer_fmt(&name, "%s%s", a->output, ends[i]);
        status = name.failed ? say(FAILED, "no memory for a name") : check_output_is_new(a, name.data);
        buffer_free(&name);
    }
    return status;
}

/* Standard output has what a command says: only some of what it writes may stand there in its place. */
static int check_output_streams(const arguments *a)
{
    const struct {
        const char *path, *name;
    } files[] = { { a->session, "--session" }, { a->boxes, "--boxes" }, { a->nll, "--nll" }, { a->trace, "--trace" } };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (files[i].path != NULL && strcmp(files[i].path, "-") == 0)
            return say(USAGE, "%s needs a file: - is standard output, which says something else", files[i].name);
    }
    return DONE;
}

static int check_outputs(const arguments *a)
{
    const char *const paths[] = { a->output, a->dump, a->nll, a->boxes, a->session, a->trace };
    struct stat st;
    int status = check_output_streams(a);
    if (status == DONE && a->session != NULL && stat(a->session, &st) == 0 && !S_ISREG(st.st_mode))
        return say(FAILED, "%s is a folder, a pipe or a device: a session is a file", a->session);
    for (size_t i = 0; status == DONE && i < sizeof paths / sizeof paths[0]; i++) {
        if (paths[i] == NULL || strcmp(paths[i], "-") == 0) continue;
        status = check_output_is_new(a, paths[i]);
        if (status == DONE && a->requests != NULL && paths[i] == a->output) status = check_beside_answers(a);
        for (size_t k = 0; status == DONE && k < i; k++) {
            if (paths[k] != NULL && same_file(paths[k], paths[i]))
                status = say(USAGE, "%s is named for two outputs", paths[i]);
        }
        if (status == DONE && paths[i] != a->trace) status = output_check(paths[i]); /* which only grows */
    }
    return status;
}

int inputs_check(const arguments *a)
{
    if (a->session != NULL) return DONE; /* whose raw text may go on without more */
    for (int i = 0; i < a->n_inputs; i++) {
        if (a->inputs[i].value[0] != '\0') return DONE;
    }
    return inputs_are_words(a) ? say(USAGE, "the prompt is empty: there is nothing to answer") : DONE;
}

/* What may be a file or the text itself: a text that is not recognized as one is no name of a file either. */
static int check_texts(const arguments *a)
{
    const struct {
        const char *value, *name, *form;
        int is_text;
    } texts[] = {
        { a->grammar, "--grammar", "rules, which have a ::=", a->grammar != NULL && strstr(a->grammar, "::=") != NULL },
        { a->json_schema, "--json-schema", "a schema, which begins with {", begins_with(a->json_schema, "{") },
        { a->tools, "--tools", "a list of tools, which begins with [", begins_with(a->tools, "[{") },
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const char *value = texts[i].value;
        if (value == NULL || texts[i].is_text || strpbrk(value, " \t\n") == NULL || access(value, F_OK) == 0) continue;
        return say(USAGE, "%s: \"%s\" is neither a file nor %s", texts[i].name, value, texts[i].form);
    }
    return DONE;
}

int arguments_check(const arguments *a)
{
    int status = check_answer(a);
    if (status == DONE) status = check_texts(a);
    if (status == DONE) status = check_standard_input(a);
    return status == DONE ? check_outputs(a) : status;
}

/* ---- The order of a message ------------------------------------------------------------------------------------ */

void inputs_order(arguments *a)
{
    int first_text = a->n_inputs, last_text = -1, first_medium = a->n_inputs, last_medium = -1;
    for (int i = 0; i < a->n_inputs; i++) {
        int is_text = input_part(a->inputs[i].kind) == G4_PART_TEXT;
        int *first = is_text ? &first_text : &first_medium, *last = is_text ? &last_text : &last_medium;
        if (*first == a->n_inputs) *first = i;
        *last = i;
    }
    if (last_text < 0 || last_medium < last_text) return;
    if (first_medium < last_text) {
        say(DONE, "%s stands behind the text, where models were not trained to have it: media come first",
            a->inputs[last_medium].value);
        return;
    }
    int n_texts = first_medium; /* all media stand behind all text: they change places */
    for (int i = 0; i < n_texts; i++) {
        input text = a->inputs[0];
        memmove(a->inputs, a->inputs + 1, (size_t)(a->n_inputs - 1) * sizeof text);
        a->inputs[a->n_inputs - 1] = text;
    }
}
