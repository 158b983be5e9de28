/* help.c - what the tables of options and commands say, as a first screen, as the help of a command, as a man page, and
 * as completions of three shells. */
#include "cli.h"

#include <string.h>

/* ---- Lists --------------------------------------------------------------------------------------------- */

/* "-m, --model FILE" */
static void add_option_left(buffer *b, const option *o)
{
    buffer_fmt(b, "%s%s%s%s%s", o->letter != NULL ? o->letter : "", o->letter != NULL && o->name != NULL ? ", " : "",
               o->name != NULL ? o->name : "", o->value != NULL && o->value[0] != '[' ? " " : "",
               o->value != NULL ? o->value : "");
}

enum { COLUMN = 29, WIDTH = 80 }; /* columns: where the help of an option begins, and where lines end */

/* Text from COLUMN on, in lines that break at blanks and fit WIDTH columns where no word is longer. */
static void add_wrapped(buffer *b, const char *text)
{
    size_t room = WIDTH - COLUMN;
    while (strlen(text) > room) {
        size_t n = room;
        while (n > 0 && text[n] != ' ') n--;
        if (n == 0) n = strcspn(text, " ");
        if (text[n] == '\0') break;
        buffer_add(b, text, n);
        buffer_fmt(b, "\n%*s", COLUMN, "");
        text += n + 1;
    }
    buffer_fmt(b, "%s\n", text);
}

static void add_option(buffer *b, const option *o)
{
    buffer left = { 0 };
    add_option_left(&left, o);
    buffer_fmt(b, left.len > 26 ? "  %s\n  %26s " : "  %-26s%s ", buffer_text(&left), "");
    add_wrapped(b, o->help);
    b->failed |= left.failed;
    buffer_free(&left);
}

/* Does an option of that command stand between this heading and the next? */
static int heads_any(const syntax *x, int i, unsigned bit)
{
    for (i++; i < x->n_options && x->options[i].kind != OPTION_HEADING; i++) {
        if ((x->options[i].commands & bit) != 0) return 1;
    }
    return 0;
}

static void add_options(buffer *b, const syntax *x, unsigned bit)
{
    for (int i = 0; i < x->n_options; i++) {
        const option *o = &x->options[i];
        if (o->kind == OPTION_HEADING && heads_any(x, i, bit)) buffer_fmt(b, "\n%s:\n", o->help);
        if (o->kind != OPTION_HEADING && (o->commands & bit) != 0) add_option(b, o);
    }
}

static const char closing[] = "\nExit status: 0 done, 1 a file, a model or the run failed, 2 wrong usage,\n"
                              "130 interrupted.\n";

/* ---- The first screen, the commands, one of them ----------------------------------------------------------- */

static const char usage[] = "usage: gemma4 [MODEL.g4] ['QUESTION'] [OPTION...]\n"
                            "       gemma4 COMMAND [OPTION...]\n";

static void add_first_screen(buffer *b, const syntax *x)
{
    static const char *const common[] = { "--model",  "--prompt", "--file",       "--image", "--audio", "--video",
                                          "--system", "--think",  "--max-tokens", "--temp",  "--json",  "--session" };
    buffer_str(b, usage);
    buffer_str(b, "\n"
                  "  gemma4                                          a chat\n"
                  "  gemma4 'Why is the sky blue?'                   one answer\n"
                  "  gemma4 'What is this?' --image photo.jpg        about a picture\n"
                  "  gemma4 'Summarise: ' -f report.txt              about a text\n"
                  "  gemma4 -m model.g4 --raw -p 'Once upon a time'  a text goes on\n\n");
    for (size_t i = 0; i < sizeof common / sizeof common[0]; i++) {
        const option *o = option_find(x, common[i], strlen(common[i]), x->commands[0].bit);
        if (o != NULL) add_option(b, o);
    }
    buffer_str(b, "\ngemma4 help run lists all options of an answer, gemma4 help the other commands.\n");
}

static void add_commands(buffer *b, const syntax *x)
{
    buffer_str(b, usage);
    buffer_str(b, "\n");
    for (int i = 1; i < x->n_commands; i++) buffer_fmt(b, "  %-12s%s\n", x->commands[i].name, x->commands[i].help);
    buffer_str(b, "\ngemma4 help COMMAND lists its options. A word that names no command and no model\n"
                  "is the question, also one that resembles a command; behind -- every word is.\n"
                  "GEMMA4_MODEL names the model where -m does not. ~/.config/gemma4/config has\n"
                  "other defaults, a long option a line, such as temp = 0.7\n");
    buffer_str(b, closing);
}

static void add_command(buffer *b, const syntax *x, const cli_command *c)
{
    buffer_fmt(b, "usage: gemma4 %s %s\n%s.\n", c->name, c->usage, c->help);
    add_options(b, x, c->bit);
    buffer_str(b, closing);
}

static int print_made(buffer *b)
{
    int status = print_buffer(b);
    buffer_free(b);
    return status;
}

int help_print(const syntax *x, const cli_command *c)
{
    buffer b = { 0 };
    if (c->name[0] == '\0')
        add_first_screen(&b, x);
    else
        add_command(&b, x, c);
    return print_made(&b);
}

/* ---- The man page ------------------------------------------------------------------------------------------- */

/* Text for troff: no sign of it is one of troff's, and hyphens are what can be typed. */
static void add_troff(buffer *b, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '-' || *text == '\\')
            buffer_fmt(b, "\\%c", *text == '\\' ? 'e' : '-');
        else if (*text == '\'')
            buffer_str(b, "\\(aq");
        else if (*text == '.' && (b->len == 0 || b->data[b->len - 1] == '\n'))
            buffer_str(b, "\\&.");
        else
            buffer_add(b, text, 1);
    }
}

static void add_troff_line(buffer *b, const char *before, const char *text)
{
    buffer_str(b, before);
    add_troff(b, text);
    buffer_str(b, "\n");
}

static void add_troff_option(buffer *b, const syntax *x, const option *o)
{
    buffer left = { 0 };
    add_option_left(&left, o);
    add_troff_line(b, ".TP\n.B ", buffer_text(&left));
    add_troff_line(b, "", o->help);
    if ((o->commands & x->commands[0].bit) == 0) {
        buffer_str(b, "(of");
        const char *comma = "";
        for (int i = 1; i < x->n_commands; i++) {
            if ((o->commands & x->commands[i].bit) == 0) continue;
            buffer_fmt(b, "%s %s", comma, x->commands[i].name);
            comma = ",";
        }
        buffer_str(b, ")\n");
    }
    b->failed |= left.failed;
    buffer_free(&left);
}

static const char man_end[] =
    ".SH ENVIRONMENT\n.TP\n.B GEMMA4_MODEL\nthe model where none is named.\n"
    ".SH FILES\n.TP\n.I ~/.config/gemma4/config\nor gemma4/config below $XDG_CONFIG_HOME: a line for each default, "
    "as in\n.B temp = 0.7\n, the name of a long option. A # at the beginning or behind a blank begins a comment. The "
    "command line wins over "
    "the "
    "environment, and that over this file.\n"
    ".TP\n.I ~/.local/share/gemma4/\nor gemma4 below $XDG_DATA_HOME: model files that\n.B \\-m NAME\nfinds.\n"
    ".SH EXIT STATUS\n0 done, 1 a file, a model or the run failed, 2 wrong usage, 130 interrupted.\n";

static void add_man(buffer *b, const syntax *x)
{
    buffer_fmt(b, ".TH GEMMA4 1 \"\" \"gemma4 %s\"\n.SH NAME\ngemma4 \\- run Gemma 4 models on a CPU\n", G4_VERSION);
    buffer_str(b, ".SH SYNOPSIS\n.B gemma4\n[MODEL.g4] [\\(aqQUESTION\\(aq] [OPTION...]\n.br\n"
                  ".B gemma4 COMMAND\n[OPTION...]\n"
                  ".SH DESCRIPTION\nWith a question, gemma4 answers it; without one it chats on a terminal, and reads "
                  "its standard input elsewhere. Answers go to standard output, everything else to standard error.\n"
                  ".SH COMMANDS\n");
    for (int i = 1; i < x->n_commands; i++) {
        buffer_fmt(b, ".TP\n.B %s ", x->commands[i].name);
        add_troff_line(b, "", x->commands[i].usage);
        add_troff_line(b, "", x->commands[i].help);
    }
    buffer_str(b, ".SH OPTIONS\n");
    for (int i = 0; i < x->n_options; i++) {
        if (x->options[i].kind == OPTION_HEADING)
            add_troff_line(b, ".SS ", x->options[i].help);
        else
            add_troff_option(b, x, &x->options[i]);
    }
    buffer_str(b, man_end);
}

/* ---- Completions ---------------------------------------------------------------------------------------------- */

static int names_file(const option *o) { return o->kind == OPTION_PATH || o->kind == OPTION_INPUT; }
static int has_value(const option *o) { return o->value != NULL && o->value[0] != '['; }
static int is_prompt(const option *o) { return o->kind == OPTION_INPUT && (input_kind)o->target == INPUT_TEXT; }

/* The names of all options of which `which` is what is asked for. */
static void add_names(buffer *b, const syntax *x, unsigned bits, int (*which)(const option *), const char *between)
{
    const char *separator = "";
    for (int i = 0; i < x->n_options; i++) {
        const option *o = &x->options[i];
        if (o->kind == OPTION_HEADING || (o->commands & bits) == 0 || !which(o)) continue;
        if (o->letter != NULL) buffer_fmt(b, "%s%s", separator, o->letter), separator = between;
        if (o->name != NULL) buffer_fmt(b, "%s%s", separator, o->name);
        separator = between;
    }
}

static int is_any(const option *o) { return o->kind != OPTION_HEADING; }
static int is_of_file(const option *o) { return has_value(o) && names_file(o) && !is_prompt(o); }
static int is_of_value(const option *o) { return has_value(o) && (!names_file(o) || is_prompt(o)); }

static void add_command_names(buffer *b, const syntax *x, const char *between)
{
    for (int i = 1; i < x->n_commands; i++) buffer_fmt(b, "%s%s", i > 1 ? between : "", x->commands[i].name);
}

static void add_bash(buffer *b, const syntax *x)
{
    buffer_str(b, "# bash completion of gemma4, made by: gemma4 help --completions bash\n_gemma4() {\n"
                  "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command= word list\n"
                  "    for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n        case $word in\n        ");
    add_command_names(b, x, "|");
    buffer_str(b, ") command=$word; break ;;\n        esac\n    done\n    COMPREPLY=()\n    case $prev in\n    ");
    add_names(b, x, ~0u, is_of_file, "|");
    buffer_str(b, ")\n        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); return ;;\n    ");
    add_names(b, x, ~0u, is_of_value, "|");
    buffer_str(b, ") return ;;\n    esac\n    case $command in\n");
    for (int i = x->n_commands - 1; i >= 0; i--) {
        buffer_fmt(b, "    %s) list='", i > 0 ? x->commands[i].name : "*");
        add_names(b, x, x->commands[i].bit, is_any, " ");
        buffer_str(b, "' ;;\n");
    }
    buffer_str(b, "    esac\n    case $command:$cur in\n    *:-*) ;;\n    :*|help:*) list='");
    add_command_names(b, x, " ");
    buffer_str(b, "' ;;\n    *) list= ;;\n    esac\n"
                  "    mapfile -t COMPREPLY < <(compgen -W \"$list\" -- \"$cur\"; "
                  "[[ $cur == -* ]] || compgen -f -- \"$cur\")\n}\n"
                  "complete -o filenames -F _gemma4 gemma4\n");
}

/* Text between single quotes of a shell; zsh's lists have colons and brackets of their own. */
static void add_quoted(buffer *b, const char *text, const char *escaped)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            buffer_str(b, "'\\''");
        else if (strchr(escaped, *text) != NULL)
            buffer_fmt(b, "\\%c", *text);
        else
            buffer_add(b, text, 1);
    }
}

static void add_zsh_option(buffer *b, const option *o, const char *name)
{
    buffer_fmt(b, "            '*%s%s[", name, has_value(o) && name[1] == '-' ? "=" : has_value(o) ? "+" : "");
    add_quoted(b, o->help, "[]:\\");
    buffer_str(b, "]");
    if (has_value(o)) {
        buffer_str(b, ":");
        add_quoted(b, o->value, "[]:\\");
        buffer_str(b, is_of_file(o) ? ":_files" : ":");
    }
    buffer_str(b, "' \\\n");
}

static void add_zsh(buffer *b, const syntax *x)
{
    buffer_str(b, "#compdef gemma4\n# zsh completion of gemma4, made by: gemma4 help --completions zsh\n_gemma4() {\n"
                  "    local command= word\n    local -a names=(\n");
    for (int i = 1; i < x->n_commands; i++) {
        buffer_fmt(b, "        '%s:", x->commands[i].name);
        add_quoted(b, x->commands[i].help, ":\\");
        buffer_str(b, "'\n");
    }
    buffer_str(b, "    )\n    for word in ${words[2,CURRENT-1]}; do\n        case $word in\n        ");
    add_command_names(b, x, "|");
    buffer_str(b, ") command=$word; break ;;\n        esac\n    done\n    case $command in\n");
    for (int i = x->n_commands - 1; i >= 0; i--) {
        buffer_fmt(b, "    %s)\n        _arguments -S \\\n", i > 0 ? x->commands[i].name : "*");
        for (int k = 0; k < x->n_options; k++) {
            const option *o = &x->options[k];
            if (o->kind == OPTION_HEADING || (o->commands & x->commands[i].bit) == 0) continue;
            if (o->letter != NULL) add_zsh_option(b, o, o->letter);
            if (o->name != NULL) add_zsh_option(b, o, o->name);
        }
        buffer_fmt(b, "            '*:%s' ;;\n",
                   i == 0                                ? "question:{ _describe command names; _files }"
                   : x->commands[i].words == WORDS_TOPIC ? "command:{ _describe command names }"
                                                         : "file:_files");
    }
    buffer_str(b, "    esac\n}\n_gemma4 \"$@\"\n");
}

static void add_fish(buffer *b, const syntax *x)
{
    buffer_str(b, "# fish completion of gemma4, made by: gemma4 help --completions fish\nfunction __gemma4_command\n"
                  "    for word in (commandline -opc)[2..-1]\n        if contains -- $word ");
    add_command_names(b, x, " ");
    buffer_str(b, "\n            echo $word\n            return\n        end\n    end\n    echo none\nend\n");
    for (int i = 1; i < x->n_commands; i++) {
        buffer_fmt(b, "complete -c gemma4 -n 'contains -- (__gemma4_command) none help' -a %s -d '",
                   x->commands[i].name);
        add_quoted(b, x->commands[i].help, "");
        buffer_str(b, "'\n");
    }
    for (int i = 0; i < x->n_options; i++) {
        const option *o = &x->options[i];
        if (o->kind == OPTION_HEADING) continue;
        buffer_str(b, "complete -c gemma4 -n 'contains -- (__gemma4_command)");
        for (int k = 0; k < x->n_commands; k++) {
            if ((o->commands & x->commands[k].bit) != 0) buffer_fmt(b, " %s", k > 0 ? x->commands[k].name : "none");
        }
        buffer_str(b, "'");
        if (o->letter != NULL) buffer_fmt(b, " -s %s", o->letter + 1);
        if (o->name != NULL) buffer_fmt(b, " -l %s", o->name + 2);
        if (has_value(o)) buffer_str(b, is_of_file(o) ? " -r -F" : " -x");
        buffer_str(b, " -d '");
        add_quoted(b, o->help, "");
        buffer_str(b, "'\n");
    }
}

/* ---- The command ---------------------------------------------------------------------------------------------- */

static int print_completions(const syntax *x, const char *shell)
{
    buffer b = { 0 };
    if (strcmp(shell, "bash") == 0)
        add_bash(&b, x);
    else if (strcmp(shell, "zsh") == 0)
        add_zsh(&b, x);
    else if (strcmp(shell, "fish") == 0)
        add_fish(&b, x);
    else
        return say(USAGE, "--completions needs bash, zsh or fish, not \"%s\"", shell);
    return print_made(&b);
}

int run_help(arguments *a)
{
    const cli_command *c = a->topic != NULL ? command_find(a->syntax, a->topic) : NULL;
    buffer b = { 0 };
    if (a->completions != NULL) return print_completions(a->syntax, a->completions);
    if (a->topic != NULL && c == NULL)
        return say(USAGE, "there is no command \"%s\"; gemma4 help lists what there is", a->topic);
    if (c != NULL) return help_print(a->syntax, c);
    if (a->man)
        add_man(&b, a->syntax);
    else
        add_commands(&b, a->syntax);
    return print_made(&b);
}
