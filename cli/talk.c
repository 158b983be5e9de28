/* talk.c - the chat on a terminal. A line that begins with a slash is a command to the program, every other line a
 * message to the model. Whatever fails has said so, and the chat goes on. */
#include "cli.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* A line to the user: harmless, wherever the text is from. */
static void tell(const char *text)
{
    show(stdout, text, strlen(text));
    putchar('\n');
}

/* ---- Commands that set what the next message is like ------------------------------------------------ */

int talk_attach(conversation *c, g4_part_kind kind, const char *path, int budget)
{
    if (path[0] == '\0') return say(USAGE, "which file?");
    message_part *p = part_add(&c->pending, &c->n_pending, kind);
    if (p == NULL) return FAILED;
    p->budget = budget;
    int status = path_read(path, &p->text);
    if (status == DONE) status = part_load(c, p); /* now, so that a wrong name is told at once */
    if (status == DONE)
        printf("goes with your next message\n");
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
    tell(has_text ? first->parts[0].text.data : "(no system prompt)");
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
    c->thinking = strcmp(which, "on") == 0 ? 1 : strcmp(which, "off") == 0 ? 0 : !c->thinking;
    printf("thinking is %s\n", c->thinking ? "on" : "off");
}

static void talk_tools(conversation *c, const char *path)
{
    if (path[0] != '\0')
        tools_declare(c, path);
    else
        tell(c->tools.len > 0 ? c->tools.data : "(no tools)");
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

/* The last message comes back to be sent again, as `text` or into the line to be changed there: *line gets it. Its
 * media stay with it. Nonzero when it is to be sent. */
static int talk_edit(conversation *c, const char *text, buffer *line)
{
    int i = last_question(c);
    if (i < 0) {
        say(USAGE, "there is nothing to edit");
        return 0;
    }
    message *m = &c->messages[i];
    buffer_str(line, text);
    for (int j = 0; j < m->n; j++) {
        if (m->parts[j].kind == G4_PART_TEXT) {
            if (text[0] == '\0') buffer_add(line, m->parts[j].text.data, m->parts[j].text.len);
            continue;
        }
        message_part *p = part_add(&c->pending, &c->n_pending, m->parts[j].kind);
        if (p == NULL) return 0;
        *p = m->parts[j]; /* moves */
        m->parts[j] = (message_part) { 0 };
    }
    conversation_cut(c, i);
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
    printf("%d messages left\n", c->n);
}

static void talk_save(const conversation *c, const char *path)
{
    if (path[0] != '\0')
        conversation_save(c, path);
    else
        say(USAGE, "to which file?");
}

static void talk_load(conversation *c, const char *path)
{
    if (path[0] == '\0')
        say(USAGE, "from which file?");
    else if (access(path, R_OK) != 0)
        say(FAILED, "cannot read %s: %s", path, strerror(errno));
    else if (conversation_open(c, path) == DONE)
        printf("%d messages, %d tokens\n", c->n, g4_session_n(c->session));
}

static void talk_stats(const conversation *c)
{
    const figures *f = &c->last;
    show(stdout, c->info.name, strlen(c->info.name));
    printf(", %s, %d threads\n", c->info.isa, c->info.n_threads);
    printf("%d messages, %d of %d tokens of context\n", c->n, g4_session_n(c->session), g4_session_n_ctx(c->session));
    printf("last prompt: %d tokens, %d of them reused, %.1f/s\n", f->prompt_tokens, f->reused,
           per_second(f->prompt_tokens - f->reused, f->prompt_seconds));
    printf("last answer: %d tokens, %.1f/s\n", f->result.n_tokens, per_second(f->result.n_tokens, f->result.seconds));
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
    TALK_SAVE,
    TALK_LOAD,
    TALK_STATS,
    TALK_QUIT,
    N_TALK_COMMANDS
};
static const struct {
    const char *name, *rest, *help;
} talk_commands[N_TALK_COMMANDS] = {
    [TALK_HELP] = { "help", "", "this list" },
    [TALK_IMAGE] = { "image", " FILE", "show the model a picture with your next message" },
    [TALK_AUDIO] = { "audio", " FILE", "let it hear a sound" },
    [TALK_VIDEO] = { "video", " FILE", "let it see a video" },
    [TALK_SYSTEM] = { "system", " [TEXT]", "set the system prompt, or show it" },
    [TALK_THINK] = { "think", " [on|off]", "let the model think before it answers" },
    [TALK_TOOLS] = { "tools", " [FILE]", "functions the model may call, or show them" },
    [TALK_RETRY] = { "retry", "", "another answer to your last message" },
    [TALK_EDIT] = { "edit", " [TEXT]", "change your last message (in the line, or to TEXT)" },
    [TALK_UNDO] = { "undo", "", "forget your last message and its answer" },
    [TALK_SAVE] = { "save", " FILE", "write the chat to a file" },
    [TALK_LOAD] = { "load", " FILE", "go on with a chat from a file" },
    [TALK_STATS] = { "stats", "", "figures of the chat and of the last answer" },
    [TALK_QUIT] = { "quit", "", "end (also Ctrl-D)" },
};

static void talk_help(void)
{
    for (int i = 0; i < N_TALK_COMMANDS; i++) {
        printf("  /%s%-*s %s\n", talk_commands[i].name, 18 - (int)strlen(talk_commands[i].name), talk_commands[i].rest,
               talk_commands[i].help);
    }
    puts("Anything else goes to the model (// for a line that begins with a slash). Alt-Enter starts a new\n"
         "line, Ctrl-C stops an answer.");
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
    case TALK_SAVE: talk_save(c, rest); break;
    case TALK_LOAD: talk_load(c, rest); break;
    case TALK_STATS: talk_stats(c); break;
    case TALK_QUIT: next = LEAVE; break;
    case N_TALK_COMMANDS: say(DONE, "there is no /%s; /help lists what there is", name); break;
    }
    buffer_free(line);
    *line = next_line;
    return next;
}

/* ---- The conversation -------------------------------------------------------------------------------- */

/* A message of the user: pending media in front, then the line. */
static void talk_send(conversation *c, const buffer *line)
{
    message_part *p = part_add(&c->pending, &c->n_pending, G4_PART_TEXT);
    if (p == NULL) return;
    buffer_add(&p->text, line->data, line->len);
    int before = c->n, status = message_add(c, G4_ROLE_USER, c->pending, c->n_pending);
    c->pending = NULL;
    c->n_pending = 0;
    if (status == DONE) status = conversation_answer(c);
    if (status != DONE && !interrupted()) conversation_cut(c, before); /* the question failed with its answer */
}

int talk(conversation *c)
{
    line_history history = { 0 };
    buffer line = { 0 };
    if (!c->args->quiet) {
        show(stdout, c->info.name, strlen(c->info.name));
        tell(". /help lists the commands, Ctrl-D ends.");
    }
    for (;;) {
        line_end end = line_read("> ", &history, &line);
        if (end == LINE_ENDED) break;
        if (end == LINE_INTERRUPTED) line.len = 0;
        next_step next = line.len > 0 ? SEND_LINE : READ_LINE;
        if (line.len > 1 && line.data[0] == '/' && line.data[1] == '/') { /* stands for a slash of the text */
            memmove(line.data, line.data + 1, line.len);
            line.len--;
        } else if (line.len > 0 && line.data[0] == '/') {
            next = talk_do(c, &line);
        }
        if (next == SEND_LINE) {
            talk_send(c, &line);
            line.len = 0;
        }
        forget_interrupt(); /* the line or the answer was stopped, not the program */
        if (next == LEAVE || interrupted()) break;
    }
    buffer_free(&line);
    history_free(&history);
    return interrupted();
}
