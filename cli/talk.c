/* talk.c - the chat on a terminal. A line that begins with a slash is a command to the program, every other line a
 * message to the model. Whatever fails has said so, and the chat goes on. */
#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A line to the user: harmless, wherever the text is from. It stands beside the answers, not among them. */
static void tell(const char *format, ...) PRINTF_LIKE(1, 2);
static void tell(const char *format, ...)
{
    buffer line = { 0 };
    va_list args;
    va_start(args, format);
    buffer_vfmt(&line, format, args);
    va_end(args);
    buffer_str(&line, "\n");
    if (!line.failed) show(stderr, line.data, line.len);
    buffer_free(&line);
}

static const char *plural(int n) { return n == 1 ? "" : "s"; }

/* ---- Commands that set what the next message is like ------------------------------------------------ */

/* What is typed there is the chat itself. */
static int check_no_terminal(const char *path)
{
    struct stat st;
    const int is_device = stat(path, &st) == 0 && S_ISCHR(st.st_mode); /* a pipe must not be opened to be asked */
    const int fd = is_device ? open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC) : -1;
    const int is_terminal = strcmp(path, "-") == 0 || (fd >= 0 && isatty(fd));
    if (fd >= 0) close(fd);
    return is_terminal ? say(USAGE, "%s is the terminal, and no file", path) : DONE;
}

int talk_attach(conversation *c, g4_part_kind kind, const char *path, int budget)
{
    if (path[0] == '\0') return say(USAGE, "which file?");
    message_part *p = part_add(&c->pending, &c->n_pending, kind);
    if (p == NULL) return FAILED;
    p->budget = budget;
    int status = path_read(path, &p->text);
    if (status == DONE) status = check_no_terminal(buffer_text(&p->text));
    if (status == DONE) status = part_load(c, p); /* now, so that a wrong name is told at once */
    if (status == DONE)
        tell("goes with your next message");
    else
        buffer_free(&c->pending[--c->n_pending].text);
    return status;
}

/* The same for a command, which has the budget that the options give. */
static void talk_medium(conversation *c, g4_part_kind kind, const char *path)
{
    talk_attach(c, kind, path, media_budget(c->args, kind));
}

static void show_system(const conversation *c)
{
    const message *first = c->n > 0 && c->messages[0].role == G4_ROLE_SYSTEM ? &c->messages[0] : NULL;
    int has_text = first != NULL && first->n > 0 && first->parts[0].text.len > 0;
    tell("%s", has_text ? first->parts[0].text.data : "(no system prompt)");
}

int talk_system(conversation *c, const char *text)
{
    message_part *parts = NULL;
    int n = 0, has = c->n > 0 && c->messages[0].role == G4_ROLE_SYSTEM;
    if (text[0] == '\0') {
        show_system(c);
        return DONE;
    }
    message_part *p = part_add(&parts, &n, G4_PART_TEXT);
    if (p == NULL) return FAILED;
    buffer_str(&p->text, text);
    int status = message_add(c, G4_ROLE_SYSTEM, parts, n);
    if (status != DONE) return status;
    message newest = c->messages[c->n - 1]; /* from the end to the front */
    if (has) {
        parts_free(c->messages[0].parts, c->messages[0].n);
        c->n--;
    } else {
        memmove(c->messages + 1, c->messages, (size_t)(c->n - 1) * sizeof newest);
    }
    c->messages[0] = newest;
    return DONE;
}

static void talk_think(conversation *c, const char *which)
{
    char *end;
    long limit = strtol(which, &end, 10);
    int is_limit = which[0] >= '1' && which[0] <= '9' && *end == '\0' && limit < INT_MAX;
    int is_on = strcmp(which, "on") == 0 || is_limit || (which[0] == '\0' && !c->thinking);
    if (!is_on && which[0] != '\0' && strcmp(which, "off") != 0) {
        say(USAGE, "/think takes on, off, or a number of tokens from 1, not \"%s\"", which);
        return;
    }
    c->thinking = is_on;
    c->guide.think_budget = is_limit ? (int)limit : c->args->think > 1 ? c->args->think - 1 : 0;
    if (is_limit)
        tell("thinking is on, %ld token%s at most", limit, plural((int)limit));
    else
        tell("thinking is %s", c->thinking ? "on" : "off");
}

static void talk_tools(conversation *c, const char *typed)
{
    buffer path = { 0 };
    int status = path_read(typed, &path); /* which leaves a list as it is */
    if (status == DONE && path.len > 0) status = check_no_terminal(path.data);
    if (status == DONE && path.len > 0)
        status = tools_declare(c, path.data);
    else if (status == DONE)
        tell("%s", c->tools.len > 0 ? c->tools.data : "(no tools)");
    if (status == DONE && path.len > 0) tell("the model may call what %s declares; /tools shows it", typed);
    buffer_free(&path);
}

/* ---- Commands about what was said -------------------------------------------------------------------- */

/* The last message of the user, or -1. */
static int last_question(const conversation *c)
{
    int i = c->n - 1;
    while (i >= 0 && c->messages[i].role != G4_ROLE_USER) i--;
    return i;
}

static void talk_retry(conversation *c)
{
    int i = last_question(c);
    if (i < 0) {
        say(USAGE, "there is nothing to answer");
        return;
    }
    conversation_cut(c, i + 1);
    c->args->seed += 1; /* another answer */
    conversation_answer(c);
}

/* The message of the user at i comes back: its text, or another one, to *line, its media to the next message. It and
 * what follows it are forgotten. */
static void take_back(conversation *c, int i, const char *text, buffer *line)
{
    message *m = &c->messages[i];
    buffer_str(line, text);
    for (int j = 0; j < m->n; j++) {
        if (m->parts[j].kind == G4_PART_TEXT) {
            if (text[0] == '\0') buffer_add(line, m->parts[j].text.data, m->parts[j].text.len);
            continue;
        }
        message_part *p = part_add(&c->pending, &c->n_pending, m->parts[j].kind);
        if (p == NULL) break;
        *p = m->parts[j]; /* moves */
        m->parts[j] = (message_part) { 0 };
    }
    conversation_cut(c, i);
}

/* The last message is to be changed: into `text`, or in the line, which *line gets. Nonzero when it is to be sent. */
static int talk_edit(conversation *c, const char *text, buffer *line)
{
    int i = last_question(c);
    if (i < 0) {
        say(USAGE, "there is nothing to edit");
        return 0;
    }
    take_back(c, i, text, line);
    return text[0] != '\0';
}

static void talk_undo(conversation *c)
{
    int i = last_question(c);
    if (i < 0) {
        say(USAGE, "there is nothing to undo");
        return;
    }
    conversation_cut(c, i);
    tell("%d message%s left", c->n, plural(c->n));
}

static void talk_clear(conversation *c)
{
    int has_system = c->n > 0 && c->messages[0].role == G4_ROLE_SYSTEM;
    conversation_cut(c, has_system); /* media that wait for the next message go on to do so */
    c->last = (figures) { 0 };
    tell("a new chat%s", has_system ? ", with the same system prompt" : "");
}

static void talk_save(conversation *c, const char *typed)
{
    buffer path = { 0 };
    if (path_given(typed, &path) != DONE || path.len == 0)
        say(USAGE, "to which file?");
    else if (strcmp(path.data, "-") == 0)
        say(USAGE, "/save needs a file: - is standard output");
    else if (session_check(path.data) == DONE && conversation_settle(c) == DONE &&
             conversation_save(c, path.data) == DONE)
        tell("%d message%s saved", c->n, plural(c->n));
    buffer_free(&path);
}

static int is_cut(const conversation *c)
{
    const message *last = c->n > 0 ? &c->messages[c->n - 1] : NULL;
    return last != NULL && last->role == G4_ROLE_MODEL && last->n > 0 && last->parts[last->n - 1].incomplete;
}

static void talk_load(conversation *c, const char *typed)
{
    buffer path = { 0 };
    if (path_given(typed, &path) != DONE || path.len == 0)
        say(USAGE, "from which file?");
    else if (access(path.data, R_OK) != 0)
        say(FAILED, "cannot read %s: %s", path.data, strerror(errno));
    else if (conversation_open(c, path.data) == DONE)
        tell("%d message%s, %d tokens%s", c->n, plural(c->n), g4_session_n(c->session),
             is_cut(c) ? "; the last answer was cut off" : "");
    buffer_free(&path);
}

static void talk_stats(const conversation *c)
{
    const figures *f = &c->last;
    tell("%s, %s, %d thread%s", c->info.name, c->info.isa, c->info.n_threads, plural(c->info.n_threads));
    tell("%d message%s, %d of %d tokens of context", c->n, plural(c->n), g4_session_n(c->session),
         g4_session_n_ctx(c->session));
    tell("last prompt: %d tokens, %d of them reused, %.1f/s", f->prompt_tokens, f->reused,
         per_second(f->prompt_tokens - f->reused, f->prompt_seconds));
    tell("last answer: %d tokens, %.1f/s", f->result.n_tokens, per_second(f->result.n_tokens, f->result.seconds));
}

/* ---- The commands -------------------------------------------------------------------------------------- */

enum talk_command {
    TALK_HELP,
    TALK_IMAGE,
    TALK_AUDIO,
    TALK_VIDEO,
    TALK_SYSTEM,
    TALK_THINK,
    TALK_TOOLS,
    TALK_RETRY,
    TALK_EDIT,
    TALK_UNDO,
    TALK_CLEAR,
    TALK_SAVE,
    TALK_LOAD,
    TALK_STATS,
    TALK_QUIT,
    N_TALK_COMMANDS
};
static const struct {
    const char *name, *rest, *help; /* of rest, " FILE" and " [FILE]" and words between bars are completed */
} talk_commands[N_TALK_COMMANDS] = {
    [TALK_HELP] = { "help", "", "this list" },
    [TALK_IMAGE] = { "image", " FILE", "show the model a picture with your next message" },
    [TALK_AUDIO] = { "audio", " FILE", "let it hear a sound" },
    [TALK_VIDEO] = { "video", " FILE", "let it see a video" },
    [TALK_SYSTEM] = { "system", " [TEXT]", "set the system prompt, or show it" },
    [TALK_THINK] = { "think", " [on|off]", "think before answering (or N: so many tokens at most)" },
    [TALK_TOOLS] = { "tools", " [FILE]", "functions the model may call, or show them" },
    [TALK_RETRY] = { "retry", "", "another answer to your last message" },
    [TALK_EDIT] = { "edit", " [TEXT]", "change your last message (in the line, or to TEXT)" },
    [TALK_UNDO] = { "undo", "", "forget your last message and its answer" },
    [TALK_CLEAR] = { "clear", "", "start anew; the system prompt and the tools stay" },
    [TALK_SAVE] = { "save", " FILE", "write the chat to a file" },
    [TALK_LOAD] = { "load", " FILE", "go on with a chat from a file" },
    [TALK_STATS] = { "stats", "", "figures of the chat and of the last answer" },
    [TALK_QUIT] = { "quit", "", "end (also Ctrl-D)" },
};

static void talk_help(void)
{
    for (int i = 0; i < N_TALK_COMMANDS; i++) {
        tell("  /%s%-*s %s", talk_commands[i].name, 18 - (int)strlen(talk_commands[i].name), talk_commands[i].rest,
             talk_commands[i].help);
    }
    tell("Anything else goes to the model (// for a line that begins with a slash).\n"
         "Alt-Enter starts a new line, Tab completes commands and files, Ctrl-R searches\n"
         "what you typed before, Ctrl-C stops an answer.");
}

/* The words of " [on|off]" that begin with `typed`. */
static void complete_word(completion *out, const char *choices, const char *typed)
{
    for (const char *word = choices + strcspn(choices, "["); *word == '[' || *word == '|';) {
        size_t n = strcspn(++word, "|]"), n_typed = strlen(typed);
        buffer text = { 0 };
        buffer_add(&text, word, n);
        if (n_typed <= n && memcmp(word, typed, n_typed) == 0 && !text.failed) {
            completion_add(out, text.data, text.data);
        }
        buffer_free(&text);
        word += n;
    }
}

/* What may stand at the cursor of a line that is a command: its name, its file or its word. */
static int talk_complete(const char *line, size_t cursor, completion *out)
{
    buffer typed = { 0 };
    size_t n_name = strcspn(line, " ");
    if (line[0] != '/' || line[1] == '/') return 0;
    if (n_name < cursor) {
        out->from = n_name + strspn(line + n_name, " ");
        if (out->from > cursor) out->from = cursor;
    }
    buffer_add(&typed, line + out->from, cursor - out->from);
    for (int i = 0; i < N_TALK_COMMANDS && !typed.failed; i++) {
        const char *name = talk_commands[i].name, *rest = talk_commands[i].rest;
        buffer shown = { 0 }, text = { 0 };
        if (n_name >= cursor) {
            buffer_fmt(&shown, "/%s", name);
            buffer_fmt(&text, "/%s%s", name, rest[0] != '\0' ? " " : "");
            int begins = !shown.failed && !text.failed && strncmp(shown.data, typed.data, typed.len) == 0;
            if (begins) completion_add(out, shown.data, text.data);
        } else if (strlen(name) == n_name - 1 && memcmp(name, line + 1, n_name - 1) == 0) {
            if (strstr(rest, "FILE") != NULL) complete_file(out, buffer_text(&typed));
            if (strchr(rest, '|') != NULL) complete_word(out, rest, buffer_text(&typed));
        }
        buffer_free(&shown);
        buffer_free(&text);
    }
    completion_sort(out);
    buffer_free(&typed);
    return 1;
}

/* There is no such command: which one was meant? */
static void talk_unknown(const char *name)
{
    int nearest = -1, least = MAX_NAME;
    for (int i = 0; i < N_TALK_COMMANDS && name[0] != '\0'; i++) {
        int far = name_near(name, talk_commands[i].name);
        if (far >= least) continue;
        nearest = i;
        least = far;
    }
    if (nearest >= 0)
        say(DONE, "there is no /%s; did you mean /%s? /help lists what there is", name, talk_commands[nearest].name);
    else
        say(DONE, "there is no /%s; /help lists what there is", name);
}

typedef enum { READ_LINE, SEND_LINE, LEAVE } next_step;

/* Do what a line says that begins with a slash. The line becomes what the next one begins with, or what is to be
 * sent. */
static next_step talk_do(conversation *c, buffer *line)
{
    buffer next_line = { 0 };
    next_step next = READ_LINE;
    char *name = line->data + 1, *rest = name + strcspn(name, " ");
    int command = 0;
    if (*rest != '\0') *rest++ = '\0';
    while (*rest == ' ') rest++;
    while (command < N_TALK_COMMANDS && strcmp(talk_commands[command].name, name) != 0) command++;
    if (command < N_TALK_COMMANDS && talk_commands[command].rest[0] == '\0' && *rest != '\0') {
        say(USAGE, "/%s takes no words, not \"%s\"", name, rest);
        buffer_free(line);
        return READ_LINE;
    }
    switch ((enum talk_command)command) {
    case TALK_HELP: talk_help(); break;
    case TALK_IMAGE: talk_medium(c, G4_PART_IMAGE, rest); break;
    case TALK_AUDIO: talk_medium(c, G4_PART_AUDIO, rest); break;
    case TALK_VIDEO: talk_medium(c, G4_PART_VIDEO, rest); break;
    case TALK_SYSTEM: talk_system(c, rest); break;
    case TALK_THINK: talk_think(c, rest); break;
    case TALK_TOOLS: talk_tools(c, rest); break;
    case TALK_RETRY: talk_retry(c); break;
    case TALK_EDIT: next = talk_edit(c, rest, &next_line) ? SEND_LINE : READ_LINE; break;
    case TALK_UNDO: talk_undo(c); break;
    case TALK_CLEAR: talk_clear(c); break;
    case TALK_SAVE: talk_save(c, rest); break;
    case TALK_LOAD: talk_load(c, rest); break;
    case TALK_STATS: talk_stats(c); break;
    case TALK_QUIT: next = LEAVE; break;
    case N_TALK_COMMANDS: talk_unknown(name); break;
    }
    buffer_free(line);
    *line = next_line;
    return next;
}

/* ---- The conversation -------------------------------------------------------------------------------- */

/* A message of the user: pending media in front, then the line. One that cannot be answered comes back into it. */
static void talk_send(conversation *c, buffer *line)
{
    message_part *p = part_add(&c->pending, &c->n_pending, G4_PART_TEXT);
    if (p == NULL) return;
    buffer_add(&p->text, line->data, line->len);
    int status = message_add(c, G4_ROLE_USER, c->pending, c->n_pending);
    c->pending = NULL;
    c->n_pending = 0;
    line->len = 0;
    if (status != DONE) return;
    status = conversation_answer(c);
    if (status == DONE || interrupted()) return;
    take_back(c, last_question(c), "", line);
    tell("your message stands in the line again: Ctrl-C takes it away, Up brings it back");
}

/* A line of the user; it becomes what the next one begins with. */
static next_step talk_line(conversation *c, buffer *line)
{
    next_step next = line->len > 0 ? SEND_LINE : READ_LINE;
    if (line->len > 1 && line->data[0] == '/' && line->data[1] == '/') { /* stands for a slash of the text */
        memmove(line->data, line->data + 1, line->len);
        line->len--;
    } else if (line->len > 0 && line->data[0] == '/') {
        next = talk_do(c, line);
    }
    if (next == SEND_LINE) talk_send(c, line);
    return next;
}

int talk(conversation *c)
{
    line_history history = { 0 };
    line_aids aids = { .history = &history, .complete = talk_complete };
    buffer line = { 0 };
    next_step next = READ_LINE;
    loader_hush(&c->loader); /* the terminal is the line editor's */
    if (!c->args->no_history) history_open(&history);
    if (!c->args->quiet) tell("%s. /help lists the commands, Ctrl-D ends.", c->info.name);
    while (next != LEAVE && !interrupted()) {
        line_end end = line_read("> ", &aids, &line);
        if (end == LINE_ENDED) break;
        if (end == LINE_INTERRUPTED) line.len = 0;
        next = talk_line(c, &line);
        if (interrupted()) aids.ahead.n = aids.ahead.at = 0; /* the terminal forgets what was typed before, too */
        forget_interrupt();                                  /* the line or the answer was stopped, not the program */
    }
    buffer_free(&line);
    history_free(&history);
    if (interrupted()) return interrupted();
    return c->args->session != NULL ? conversation_settle(c) : DONE;
}
