/* tools.c - the functions that a model may call: their declarations, and the results of its calls, which a program
 * gives (--tool-exec) or the user types. */
#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int tools_declare(conversation *c, const char *tools)
{
    buffer json = { 0 };
    g4_grammar *grammar = NULL;
    g4_error err;
    char first = tools[strspn(tools, " \t\r\n")];
    int is_text = first == '[' || first == '{', status = text_or_file(tools, is_text, &json);
    if (status == DONE && c->guide.tool_choice != G4_TOOLS_NONE &&
        g4_grammar_from_tools(&grammar, c->engine, buffer_text(&json), json.len, c->guide.tool_name, &c->schema,
                              &err) != G4_OK) {
        status = report_of(is_text ? "--tools" : tools, &err);
    }
    if (status != DONE) {
        buffer_free(&json);
        return status;
    }
    g4_grammar_close(c->guide.tools);
    buffer_free(&c->tools);
    c->guide.tools = grammar;
    c->tools = json;
    return DONE;
}

/* ---- A program ---------------------------------------------------------------------------------- */

/* The arguments of a call as an open file, so that neither side waits for the other; NULL when that cannot be. */
static FILE *arguments_file(const buffer *json)
{
    FILE *f = tmpfile();
    if (f == NULL) return NULL;
    if (fwrite(buffer_text(json), 1, json->len, f) != json->len || fflush(f) != 0) {
        fclose(f);
        return NULL;
    }
    rewind(f);
    return f;
}

/* Run `program name` without a shell. *output gets the end of the pipe that it writes to; -1: it cannot be run. */
static pid_t start_program(const char *program, const char *name, int in, int *output)
{
    int ends[2];
    if (pipe(ends) != 0) return -1;
    pid_t pid = fork();
    if (pid == 0) {
        dup2(in, STDIN_FILENO);
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        signal(SIGPIPE, SIG_DFL); /* what is ignored stays ignored in a new program */
        execlp(program, program, name, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    if (pid < 0) close(ends[0]);
    *output = ends[0];
    return pid;
}

enum { MAX_RESULT = 16 << 20 }; /* bytes: more than any context holds */

/* What a program writes, up to that many bytes, without the newlines at its end. Returns whether that was all. */
static int read_output(int fd, buffer *out)
{
    char block[4096];
    ssize_t n;
    do {
        n = read(fd, block, sizeof block);
        if (n > 0) buffer_add(out, block, (size_t)n);
    } while ((n > 0 && out->len <= MAX_RESULT) || (n < 0 && errno == EINTR && !interrupted()));
    while (out->len > 0 && (out->data[out->len - 1] == '\n' || out->data[out->len - 1] == '\r')) out->len--;
    return n <= 0;
}

static int run_tool(const char *program, const char *name, const buffer *json, buffer *result)
{
    int output, code = 0;
    FILE *in = arguments_file(json);
    if (in == NULL) return say(FAILED, "cannot hand arguments to %s: %s", program, strerror(errno));
    pid_t pid = start_program(program, name, fileno(in), &output);
    int reason = errno;
    fclose(in);
    if (pid < 0) return say(FAILED, "cannot run %s: %s", program, strerror(reason));
    int is_all = read_output(output, result);
    close(output);
    if (interrupted() || !is_all) kill(pid, SIGTERM);
    while (waitpid(pid, &code, 0) < 0 && errno == EINTR) continue;
    if (interrupted()) return interrupted();
    if (!is_all) return say(FAILED, "%s %s printed more than %d MiB and was stopped", program, name, MAX_RESULT >> 20);
    if (WIFEXITED(code) && WEXITSTATUS(code) == 127) return say(FAILED, "cannot run %s", program);
    if (code != 0) say(DONE, "%s %s failed; the model is told what it printed", program, name);
    return DONE;
}

/* ---- The results of calls ------------------------------------------------------------------------ */

/* Does the user want the call to be carried out? The arguments stand above the question, in a line of their own where
 * the call was not shown. */
static int may_run(const arguments *a, const char *name, const buffer *json)
{
    buffer question = { 0 }, line = { 0 };
    if (a->yes) return 1;
    if (!isatty(STDIN_FILENO)) return 0;
    if (a->json || !isatty(STDERR_FILENO)) buffer_fmt(&question, "%s %s\n", name, buffer_text(json));
    buffer_fmt(&question, "run %s ", a->tool_exec);
    buffer_harmless(&question, name, strlen(name), USE_NAME);
    buffer_str(&question, "? [y/N] ");
    int yes = !question.failed && line_ask(buffer_text(&question), &line) == LINE_READ && line.len > 0 &&
              (line.data[0] == 'y' || line.data[0] == 'Y');
    buffer_free(&question);
    buffer_free(&line);
    return yes;
}

static int answer_call(const arguments *a, const message_part *call, buffer *result)
{
    const char *name = buffer_text(&call->name);
    if (a->tool_exec == NULL) {
        line_forget_ahead();
        return line_read("result: ", NULL, result) == LINE_READ ? DONE : FAILED;
    }
    if (name[0] == '-') { /* the program could take it for an option of its own */
        return say(FAILED, "%s was not run: the name of the tool %s begins with -", a->tool_exec, name);
    }
    if (may_run(a, name, &call->text)) return run_tool(a->tool_exec, name, &call->text, result);
    if (interrupted()) return interrupted();
    return say(FAILED, "%s was not run%s", a->tool_exec, isatty(STDIN_FILENO) ? "" : ": it needs --yes");
}

int tools_answer(conversation *c, int *answered)
{
    const message *last = &c->messages[c->n - 1];
    message_part *results = NULL;
    int n = 0, status = DONE;
    *answered = 0;
    if (c->args->tool_exec == NULL && !c->on_terminal) return DONE;
    for (int i = 0; status == DONE && i < last->n; i++) {
        const message_part *call = &last->parts[i];
        if (call->kind != G4_PART_TOOL_CALL || call->incomplete) continue;
        message_part *p = part_add(&results, &n, G4_PART_TOOL_RESULT);
        if (p == NULL) {
            status = FAILED;
            break;
        }
        buffer_add(&p->name, call->name.data, call->name.len);
        buffer_add(&p->id, call->id.data, call->id.len);
        status = answer_call(c->args, call, &p->text);
    }
    *answered = status == DONE && n > 0;
    if (*answered) return message_add(c, G4_ROLE_TOOL, results, n);
    parts_free(results, n);
    return status;
}
