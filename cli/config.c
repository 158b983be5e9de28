/* config.c - what the command line leaves open: the model of GEMMA4_MODEL, and the lines of the user's own file,
 *
 *     # a comment
 *     model = ~/models/e2b.g4
 *     temp = 0.7 # to the end of the line
 *     quiet
 *
 * each the long name of an option. A line counts for the commands that have the option; the command line wins over the
 * environment, and the environment over the file. */
#include "cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_WHERE = 4200 }; /* a path and a number */

static int config_path(buffer *out)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    if (config != NULL && config[0] == '/') /* a relative one is ignored, as the specification of these folders says */
        buffer_fmt(out, "%s/gemma4/config", config);
    else if (home != NULL && home[0] != '\0')
        buffer_fmt(out, "%s/.config/gemma4/config", home);
    return !out->failed && out->len > 0;
}

/* The text between the blanks around it, ended by a NUL of its own. */
static char *trim(char *text, char *end)
{
    while (text < end && strchr(" \t\r", *text) != NULL) text++;
    while (end > text && strchr(" \t\r", end[-1]) != NULL) end--;
    *end = '\0';
    return text;
}

/* Is it yes? 1 or 0; -1: it is neither. */
static int read_yes(const char *value)
{
    static const char *const words[] = { "no", "yes", "false", "true", "off", "on", "0", "1" };
    for (int i = 0; i < (int)(sizeof words / sizeof words[0]); i++) {
        if (strcmp(value, words[i]) == 0) return i % 2;
    }
    return -1;
}

static int set_from_file(arguments *a, const option *o, const char *value, const char *where)
{
    int has_own_form = o->kind == OPTION_THINK || o->kind == OPTION_JSON;
    int yes = value == NULL ? 1 : o->kind == OPTION_FLAG || has_own_form ? read_yes(value) : -1;
    if (o->kind == OPTION_FLAG && yes < 0) return say(USAGE, "%s%s is yes or no, not \"%s\"", where, o->name, value);
    if (value == NULL && o->kind != OPTION_FLAG && !has_own_form)
        return say(USAGE, "%s%s needs a value: %s = %s", where, o->name, o->name + 2, o->value);
    if (yes == 0) return DONE;
    return option_set(a, o, yes == 1 ? NULL : value, where);
}

static int is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

/* Where the line ends for us: at a # that begins it or is behind a blank, unless a value's quotes are open there. */
static char *line_end_of(char *line, char *end)
{
    char *equals = memchr(line, '=', (size_t)(end - line)), *value = equals != NULL ? equals + 1 : end;
    while (value < end && is_blank(*value)) value++;
    for (char *p = line; p < end; p++) {
        if (*p != '#' || (p > line && !is_blank(p[-1]))) continue;
        if (p < value || *value != '"') return p;
        char *last = p - 1;
        while (last > value && is_blank(*last)) last--;
        if (last > value && *last == '"') return p;
    }
    return end;
}

static int take_line(arguments *a, const cli_command *c, char *line, char *end, const char *where)
{
    char *equals = memchr(line, '=', (size_t)(end - line));
    char *value = equals != NULL ? trim(equals + 1, end) : NULL, *name = trim(line, equals != NULL ? equals : end);
    size_t n = value != NULL ? strlen(value) : 0;
    buffer dashed = { 0 }, hint = { 0 };
    if (name[0] == '\0' && equals == NULL) return DONE;
    if (strncmp(name, "--", 2) == 0) name += 2;             /* as on the command line */
    if (n >= 2 && value[0] == '"' && value[n - 1] == '"') { /* which keep the blanks between them */
        value[n - 1] = '\0';
        value++;
    }
    buffer_fmt(&dashed, "--%s", name);
    const option *o = dashed.failed ? NULL : option_find(a->syntax, dashed.data, dashed.len, c->bit);
    int status = DONE;
    if (o == NULL) {
        add_near_option(&hint, a->syntax, name, ~0u);
        status = say(USAGE, "%sthere is no option \"%s\"%s", where, name, buffer_text(&hint));
    } else if (o->kind == OPTION_INPUT || o->commands == ~0u) {
        status = say(USAGE, "%s%s belongs on the command line", where, o->name);
    } else if ((o->commands & c->bit) != 0 && !a->given[o - a->syntax->options] &&
               !(o->target == FIELD(model) && a->model != NULL)) {
        status = set_from_file(a, o, value, where);
    }
    buffer_free(&dashed);
    buffer_free(&hint);
    return status;
}

/* The lines of the file, which the arguments keep: values point into them. */
static int take_lines(arguments *a, const cli_command *c, const char *path, char *text, size_t len)
{
    int status = DONE, number = 1;
    char where[MAX_WHERE];
    for (char *line = text, *stop = text + len; status == DONE && line < stop; number++) {
        char *end = memchr(line, '\n', (size_t)(stop - line)), *next = end != NULL ? end + 1 : stop;
        if (end == NULL) end = stop;
        snprintf(where, sizeof where, "%s:%d: ", path, number);
        status = take_line(a, c, line, line_end_of(line, end), where);
        line = next;
    }
    return status;
}

static int read_file(arguments *a, const cli_command *c)
{
    buffer path = { 0 }, text = { 0 };
    int status = DONE;
    if (config_path(&path) && access(path.data, F_OK) == 0) {
        status = source_read(path.data, &text);
        size_t len = text.len;
        char *kept = status == DONE ? arguments_keep(a, &text) : NULL;
        if (kept != NULL && strlen(kept) != len) status = say(USAGE, "%s holds a NUL: it is no text", path.data);
        if (status == DONE) status = kept != NULL ? take_lines(a, c, path.data, kept, len) : FAILED;
    }
    buffer_free(&path);
    buffer_free(&text);
    return status;
}

int config_read(arguments *a, const cli_command *c)
{
    const char *model = getenv("GEMMA4_MODEL");
    const option *o = option_find(a->syntax, "--model", strlen("--model"), c->bit);
    int status = DONE;
    if (model != NULL && model[0] != '\0' && a->model == NULL && (o->commands & c->bit) != 0)
        status = option_set(a, o, model, "GEMMA4_MODEL: ");
    return status == DONE && !a->no_config ? read_file(a, c) : status;
}
