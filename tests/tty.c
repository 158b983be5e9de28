/* The chat on a terminal: the program runs behind a pseudo-terminal, this types and reads. */
#define _GNU_SOURCE 1
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "test.h"

#define G4_CHAT_MODEL "tests/data/media/e2b-q8_0.g4"

static int g4_fd;
static char g4_seen[1 << 20]; /* all the terminal has shown since the last key */
static size_t g4_n_seen;

#define G4_PATIENCE 1200 /* tenths of a second: sanitizers and busy machines are slow */
/* Read until text and `more` bytes behind it have appeared; 0 after that time without anything. */
static int g4_wait_beyond(const char *text, size_t more)
{
    struct pollfd in = { g4_fd, POLLIN, 0 };
    for (int quiet = 0; quiet < G4_PATIENCE;) {
        g4_seen[g4_n_seen] = '\0';
        const char *at = strstr(g4_seen, text);
        if (at != NULL && strlen(at) >= strlen(text) + more) return 1;
        if (poll(&in, 1, 100) <= 0) {
            quiet++;
            continue;
        }
        ssize_t n = read(g4_fd, g4_seen + g4_n_seen, sizeof g4_seen - 1 - g4_n_seen);
        if (n <= 0) return 0;
        g4_n_seen += (size_t)n;
    }
    return 0;
}

static int g4_wait_for(const char *text) { return g4_wait_beyond(text, 0); }

static int g4_type(const char *keys, const char *wanted)
{
    size_t n = strlen(keys);
    g4_n_seen = 0;
    if (write(g4_fd, keys, n) != (ssize_t)n) return 0;
    return g4_wait_for(wanted);
}

#define G4_TYPE(keys, wanted) G4_EXPECT(g4_type(keys, wanted), "typed %s, saw: %s", #keys, g4_seen)

static const char *g4_program(void)
{
    const char *program = getenv("G4_PROGRAM");
    return program != NULL ? program : "./gemma4";
}

/* A child on a terminal of its own: 0 in the child, as fork() has it. */
static pid_t g4_fork(const char *term)
{
    struct winsize size = { .ws_row = 24, .ws_col = 40 };
    char *name;
    g4_n_seen = 0;
    g4_fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (g4_fd < 0 || grantpt(g4_fd) != 0 || unlockpt(g4_fd) != 0 || (name = ptsname(g4_fd)) == NULL) return -1;
    pid_t pid = fork();
    if (pid == 0) {
        setsid();
        int terminal = open(name, O_RDWR); /* becomes the controlling terminal */
        ioctl(terminal, TIOCSWINSZ, &size);
        dup2(terminal, 0);
        dup2(terminal, 1);
        dup2(terminal, 2);
        setenv("TERM", term, 1);
        unsetenv("HOME"); /* no history: it would be the user's own */
        unsetenv("XDG_STATE_HOME");
    }
    return pid;
}

/* A line of the shell, in which $0 is the program. */
static pid_t g4_start_line(const char *term, const char *line)
{
    pid_t pid = g4_fork(term);
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", line, g4_program(), (char *)NULL);
        _exit(127);
    }
    return pid;
}

/* The chat with up to six more arguments, which end with NULL. */
static pid_t g4_start_with(const char *term, const char *limit, const char *const *more)
{
    const char *last[6] = { NULL };
    for (int i = 0; more[i] != NULL; i++) last[i] = more[i];
    pid_t pid = g4_fork(term);
    if (pid == 0) {
        execl(g4_program(), "gemma4", "-m", G4_CHAT_MODEL, "--temp", "0", "-n", limit, "--no-guard", "-c", "4000", "-t",
              "1", "--isa", "scalar", "--logit-bias", "1:-999", "--logit-bias", "16:-999", "--logit-bias",
              "9:-999", /* the three ids would end an answer */
              last[0], last[1], last[2], last[3], last[4], last[5], (char *)NULL);
        _exit(127);
    }
    return pid;
}

static pid_t g4_start(const char *term, const char *limit)
{
    return g4_start_with(term, limit, (const char *const[]) { NULL });
}

static int g4_end(pid_t pid)
{
    int status = 0;
    g4_n_seen = 0;
    (void)g4_wait_for("never"); /* drain until the other side closes */
    close(g4_fd);
    for (int tenths = 0; waitpid(pid, &status, WNOHANG) == 0; tenths++) {
        if (tenths == 50) kill(pid, SIGKILL); /* it should have ended by itself */
        usleep(100000);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

/* A file with this text, to be removed; its name in path. */
static void g4_write_text(char *path, const char *text)
{
    strcpy(path, "/tmp/gemma4-tty-XXXXXX");
    const int file = mkstemp(path);
    G4_EXPECT(file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text) && close(file) == 0,
              "no temporary file");
}

#define G4_CSI "\xC2\x9B"          /* U+009B, which begins a sequence as escape and [ do */
#define G4_OVERRIDE "\xE2\x80\xAE" /* U+202E: what follows is shown from right to left */

static int g4_saw_harm(void)
{
    return strstr(g4_seen, G4_CSI) != NULL || strstr(g4_seen, G4_OVERRIDE) != NULL ||
           strstr(g4_seen, "\x1B]") != NULL || strstr(g4_seen, "\xE2\x81\xA6") != NULL; /* an isolate */
}

/* Nothing that the model, a file or a name says drives the terminal. */
static void g4_test_harmless(void)
{
    char rules[64], tools[64], command[128];
    g4_write_text(rules, "root ::= \"a\\u009b31mb\\u202ec\\u2066d\\x1b]0;e\\x7f\\u200df\\tg\"\n");
    g4_write_text(tools, "[{\"function\": {\"name\": \"" G4_CSI "31m" G4_OVERRIDE "\", \"description\": \"\"}}]");
    pid_t pid = g4_start_with("dumb", "60", (const char *const[]) { "--grammar", rules, NULL });
    G4_EXPECT(g4_wait_for("Ctrl-D ends"), "saw: %s", g4_seen);
    G4_TYPE("hello\r", "a?31mb?c?d?]0;e?\xE2\x80\x8D"
                       "f");
    G4_EXPECT(g4_wait_for("reused") && !g4_saw_harm(), "harm: %s", g4_seen);
    G4_TYPE("/load nowhere\xE2\x81\xA6" G4_CSI "31m\r", "cannot read nowhere??31m");
    snprintf(command, sizeof command, "/tools %s\r", tools);
    G4_TYPE(command, "> ");
    G4_TYPE("/tools\r", "?31m?");
    G4_EXPECT(!g4_saw_harm(), "harm: %s", g4_seen);
    G4_TYPE("/system x" G4_CSI "31m\r", "> ");
    G4_TYPE("/system\r", "x?31m");
    G4_TYPE("/quit\r", "\n");
    G4_EXPECT(g4_end(pid) == 0, "the chat ended otherwise");
    pid = g4_start_with("dumb", "60", (const char *const[]) { "--grammar", rules, "-p", "hello", "--json", NULL });
    G4_EXPECT(g4_wait_for("finish_reason") && strstr(g4_seen, "a\\u009b31mb\\u202ec\\u2066d\\u001b]0;e\\u007f"),
              "saw: %s", g4_seen);
    G4_EXPECT(!g4_saw_harm() && g4_end(pid) == 0, "harm: %s", g4_seen);
    pid = g4_start("xterm", "5"); /* the line editor shows what is pasted, and the model gets it as it is */
    G4_EXPECT(g4_wait_for("[?2004h"), "saw: %s", g4_seen); /* before, the system shows what is typed */
    G4_TYPE("a" G4_CSI "1" G4_OVERRIDE "2", "a?1?2");
    G4_EXPECT(!g4_saw_harm(), "harm: %s", g4_seen);
    G4_TYPE("\x15/quit\r", "\n");
    G4_EXPECT(g4_end(pid) == 0, "the chat ended otherwise");
    unlink(rules);
    unlink(tools);
}

/* Before a program runs, the question stands on the terminal, whatever is redirected. */
static void g4_test_questions(void)
{
    char tools[64], ran[64], out[64], line[400], ahead[400] = "";
    struct stat st;
    g4_write_text(ran, "");
    g4_write_text(out, "");
    g4_write_text(tools, "[{\"type\": \"function\", \"function\": {\"name\": \"get" G4_CSI "_x\", \"description\": "
                         "\"d\", \"parameters\": {\"type\": \"object\", \"properties\": {\"a\": {\"enum\": [7]}}, "
                         "\"additionalProperties\": false, \"required\": [\"a\"]}}}]");
    static const char *const redirections[] = { "", "> %s", "2> %s", "> %s 2>&1", "--quiet > %s", "--json 2> %s" };
    for (int i = 0; i < 6; i++) {
        const int agrees = i % 2 == 0;
        snprintf(line, sizeof line,
                 "exec \"$0\" -m " G4_CHAT_MODEL
                 " --temp 0 -n 90 -p hello --tools %s --tool-choice required --tool-exec "
                 "/tmp/no-such-program ",
                 tools);
        if (i == 0) strcpy(ahead, line);
        snprintf(line + strlen(line), sizeof line - strlen(line), redirections[i], out);
        pid_t pid = g4_start_line("xterm", line);
        G4_EXPECT(g4_wait_for("run /tmp/no-such-program get?_x? [y/N] "), "%s, saw: %s", redirections[i], g4_seen);
        const char *question = strstr(g4_seen, "[y/N] ");
        G4_EXPECT(question != NULL && strpbrk(question, "\r\x1B") == NULL, "it is wiped out: %s", g4_seen);
        G4_EXPECT(strstr(g4_seen, "get?_x {") != NULL && !g4_saw_harm(), "%s, the call: %s", redirections[i], g4_seen);
        if (!agrees) G4_EXPECT(write(g4_fd, "\n", 1) == 1, "cannot type");
        if (agrees) G4_EXPECT(write(g4_fd, "y\n", 2) == 2, "cannot type");
        G4_EXPECT(g4_end(pid) == 1, "it was run");
    }
    G4_EXPECT(stat(ran, &st) == 0 && st.st_size == 0, "it was run");
    /* what is typed ahead is no answer */
    pid_t pid = g4_start_line("xterm", ahead);
    G4_EXPECT(write(g4_fd, "y\ny\n", 4) == 4 && g4_wait_for("[y/N] "), "saw: %s", g4_seen);
    G4_TYPE("n\n", "was not run");
    G4_EXPECT(strstr(g4_seen, "cannot run") == NULL, "it was run: %s", g4_seen);
    G4_EXPECT(g4_end(pid) == 1, "it ended otherwise");
    unlink(tools);
    unlink(ran);
    unlink(out);
}

/* A call that -n or Ctrl-C cuts off is no call: nobody is asked for its result, and the chat goes on, also from a file.
 */
static void g4_test_cut_call(void)
{
    char tools[64], saved[64], command[128];
    g4_write_text(saved, "");
    g4_write_text(tools, "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"description\": \"d\", "
                         "\"parameters\": {\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"string\", "
                         "\"minLength\": 4000}}, \"additionalProperties\": false, \"required\": [\"a\"]}}}]");
    static const char *const limits[] = { "1", "2", "3", "9", "100000" };
    for (int i = 0; i < 5; i++) {
        pid_t pid =
            g4_start_with("dumb", limits[i], (const char *const[]) { "--tools", tools, "--tool-choice", "f", NULL });
        G4_EXPECT(g4_wait_for("Ctrl-D ends"), "saw: %s", g4_seen);
        G4_TYPE("hello\r", i < 4 ? "stopped: length" : "hello");
        if (i == 4) usleep(300000);
        if (i == 4) G4_TYPE("\x03", "stopped: interrupted; the call of f is incomplete");
        G4_EXPECT(strstr(g4_seen, "result: ") == NULL, "it was asked for: %s", g4_seen);
        G4_EXPECT(i < 3 || strstr(g4_seen, "the call of f is incomplete") != NULL, "saw: %s", g4_seen);
        snprintf(command, sizeof command, "/save %s\r", saved);
        G4_TYPE(command, "> ");
        snprintf(command, sizeof command, "/load %s\r", saved);
        G4_TYPE(command, "2 messages");
        if (i < 4) G4_TYPE("and then?\r", "answer ");
        if (i < 4) G4_TYPE("/stats\r", "4 messages");
        G4_TYPE("/quit\r", "\n");
        G4_EXPECT(g4_end(pid) == 0, "the chat ended otherwise");
    }
    unlink(tools);
    unlink(saved);
}

int main(void)
{
    /* The line editor. What the model says means nothing; the line with its figures ends each answer. */
    pid_t pid = g4_start("xterm", "5");
    G4_EXPECT(pid > 0, "no pseudo-terminal");
    if (pid <= 0) return g4_test_end();
    G4_EXPECT(g4_wait_for("Ctrl-D ends"), "saw: %s", g4_seen);
    G4_TYPE("/help\r", "/undo");
    G4_TYPE("h\xC3\xA9llo \xE4\xBD\xA0\xE5\xA5\xBD", "> h\xC3\xA9llo \xE4\xBD\xA0\xE5\xA5\xBD");
    G4_TYPE("\x7F\x7F", "> h\xC3\xA9llo \r");
    G4_TYPE("\x01say \x05!\r", "> say h\xC3\xA9llo !");
    G4_EXPECT(g4_wait_for("answer 5 tokens"), "saw: %s", g4_seen);
    G4_TYPE("\x1B[A", "> say h\xC3\xA9llo !"); /* up: the line before */
    G4_TYPE("\x15gone\x03", "> ");             /* Ctrl-U, then Ctrl-C: a fresh line */
    G4_TYPE("one two\x1B[1;5D\x0B"
            "2\r",
            "> one 2"); /* word left, Ctrl-K */
    G4_EXPECT(g4_wait_for("answer 5 tokens"), "saw: %s", g4_seen);
    G4_TYPE("\x1B[200~a\nb\x1B[201~", "> a\r\r\nb"); /* a pasted newline does not send */
    G4_TYPE("\r", "answer 5 tokens");
    G4_TYPE("this line is much longer than the terminal is wide, so it is broken", "is broken");
    G4_TYPE("\x15/stats\r", "6 messages");
    G4_TYPE("/undo\r", "4 messages left");
    G4_TYPE("/edit\r", "> one 2");
    G4_TYPE("3\r", "> one 23");
    G4_EXPECT(g4_wait_for("answer 5 tokens"), "saw: %s", g4_seen);
    G4_TYPE("/edit four\r", "answer 5 tokens");
    G4_TYPE("/retry\r", "answer 5 tokens");
    G4_TYPE("/system Be brief.\r", "> ");
    G4_TYPE("/system\r", "Be brief.\r\n");
    G4_TYPE("/think\r", "thinking is on");
    G4_TYPE("/think maybe\r", "/think takes on, off, or a number");
    G4_TYPE("/think 0\r", "/think takes on, off, or a number");
    G4_TYPE("/think 1\r", "thinking is on, 1 token at most");
    G4_TYPE("/think 20\r", "thinking is on, 20 tokens at most");
    G4_TYPE("/think on\r", "thinking is on\r\n");
    G4_TYPE("/quit now\r", "/quit takes no words, not \"now\"");
    G4_TYPE("/tools examples/tools.json\r", "what examples/tools.json declares");
    G4_TYPE("/tools nowhere.json\r", "cannot read nowhere.json");
    G4_TYPE("//no command\r", "answer 5 tokens");
    G4_TYPE("/nonsense\r", "there is no /nonsense");
    G4_TYPE("/image nowhere.png\r", "nowhere.png");
    G4_TYPE("/load nowhere\r", "cannot read nowhere");
    G4_TYPE("/save /no/such/folder/x\r", "cannot write");
    G4_TYPE("\x04", "\n");
    G4_EXPECT(g4_end(pid) == 0, "the chat ended otherwise");

    /* Ctrl-C stops an answer, not the program. */
    pid = g4_start("xterm", "100000");
    G4_EXPECT(g4_wait_for("Ctrl-D ends"), "saw: %s", g4_seen);
    G4_TYPE("go on\r", "\r\n\x1B[?2004l");
    G4_EXPECT(g4_wait_beyond("\r\n\x1B[?2004l", 8), "it does not speak: %s", g4_seen);
    G4_TYPE("\x03", "answer ");
    G4_TYPE("/stats\r", "2 messages");
    G4_TYPE("/quit\r", "\n");
    G4_EXPECT(g4_end(pid) == 0, "the chat ended otherwise");

    /* A terminal that can nothing: plain lines, no escape sequences from us. */
    pid = g4_start("dumb", "5");
    G4_EXPECT(g4_wait_for("Ctrl-D ends"), "saw: %s", g4_seen);
    G4_TYPE("hello\r", "answer 5 tokens");
    G4_EXPECT(strchr(g4_seen, '\x1B') == NULL, "escape sequences: %s", g4_seen);
    G4_TYPE("/quit\r", "\n");
    G4_EXPECT(g4_end(pid) == 0, "the chat ended otherwise");

    /* Half a line that Ctrl-C follows is not sent. Ctrl-D hands it over without its end. */
    pid = g4_start("dumb", "5");
    G4_EXPECT(g4_wait_for("Ctrl-D ends.\r\n> "), "saw: %s", g4_seen);
    G4_TYPE("half\x04", "half");
    usleep(300000); /* Ctrl-C drops what nobody has read yet */
    G4_TYPE("\x03", "> ");
    G4_TYPE("/stats\r", "0 messages");
    G4_TYPE("/quit\r", "\n");
    G4_EXPECT(g4_end(pid) == 0, "the chat ended otherwise");

    /* A session whose messages are damaged leaves the chat as it is. */
    char saved[] = "/tmp/gemma4-tty-XXXXXX", command[64];
    int file = mkstemp(saved);
    pid = g4_start("dumb", "5");
    G4_EXPECT(file >= 0, "no temporary file");
    G4_EXPECT(g4_wait_for("Ctrl-D ends"), "saw: %s", g4_seen);
    G4_TYPE("hello\r", "answer 5 tokens");
    snprintf(command, sizeof command, "/save %s\r", saved);
    G4_TYPE(command, "> ");
    G4_TYPE("/stats\r", "2 messages");
    close(file);
    file = open(saved, O_WRONLY); /* the one with the chat in it: saving puts a new file in the place of the old */
    G4_EXPECT(pwrite(file, "\xFF", 1, 16) == 1 && close(file) == 0, "cannot damage the file"); /* the first role */
    snprintf(command, sizeof command, "/load %s\r", saved);
    G4_TYPE(command, "damaged");
    G4_TYPE("/stats\r", "2 messages");
    G4_TYPE("/quit\r", "\n");
    G4_EXPECT(g4_end(pid) == 0, "the chat ended otherwise");
    unlink(saved);

    /* A picture of the command line has the budget before it, one of the chat the last that was given. */
    char picture[] = "/tmp/gemma4-tty-XXXXXX";
    file = mkstemp(picture);
    G4_EXPECT(file >= 0 && write(file, "P6\n1 1\n255\n123", 14) == 14 && close(file) == 0, "no temporary file");
    snprintf(command, sizeof command, "/image %s\r", picture);
    pid = g4_start_with(
        "dumb", "5",
        (const char *const[]) { "--image-tokens", "70", "--image", picture, "--image-tokens", "560", NULL });
    G4_EXPECT(g4_wait_for("Ctrl-D ends"), "saw: %s", g4_seen);
    G4_TYPE(command, "goes with your next message");
    G4_TYPE("hello\r", "answer 5 tokens");
    const char *prompt = strstr(g4_seen, "prompt ");
    G4_EXPECT(prompt != NULL && atoi(prompt + strlen("prompt ")) > 500, "the budget was forgotten: %s", g4_seen);
    G4_TYPE("/quit\r", "\n");
    G4_EXPECT(g4_end(pid) == 0, "the chat ended otherwise");
    unlink(picture);
    g4_test_harmless();
    g4_test_questions();
    g4_test_cut_call();
    return g4_test_end();
}
