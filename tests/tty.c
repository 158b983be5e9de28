/* The chat on a terminal: the program runs behind a pseudo-terminal, this types and reads. */
#define _GNU_SOURCE 1
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
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

/* The chat with up to six more arguments, which end with NULL. */
static pid_t g4_start_with(const char *term, const char *limit, const char *const *more)
{
    const char *program = getenv("G4_PROGRAM"), *last[6] = { NULL };
    struct winsize size = { .ws_row = 24, .ws_col = 40 };
    char *name;
    for (int i = 0; more[i] != NULL; i++) last[i] = more[i];
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
        execl(program != NULL ? program : "./gemma4", "gemma4", "-m", G4_CHAT_MODEL, "--temp", "0", "-n", limit,
              "--no-guard", "-c", "4000", "-t", "1", "--isa", "scalar", "--logit-bias", "1:-999", "--logit-bias",
              "16:-999", "--logit-bias", "9:-999", /* the three ids would end an answer */
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

int main(void)
{
    /* The line editor. What the model says means nothing; the line with its figures ends each answer. */
    pid_t pid = g4_start("xterm", "5");
    G4_EXPECT(pid > 0, "no pseudo-terminal");
    if (pid <= 0) return g4_test_end();
    G4_EXPECT(g4_wait_for("Ctrl-D ends"), "saw: %s", g4_seen);
    G4_TYPE("/help\r", "/undo");
    G4_TYPE("h\xC3\xA9llo \xE4\xBD\xA0\xE5\xA5\xBD", "> h\xC3\xA9llo \xE4\xBD\xA0\xE5\xA5\xBD");
    G4_TYPE("\x7F\x7F", "> h\xC3\xA9llo \x1B[K");
    G4_TYPE("\x01say \x05!\r", "> say h\xC3\xA9llo !");
    G4_EXPECT(g4_wait_for("answer 5 tokens"), "saw: %s", g4_seen);
    G4_TYPE("\x1B[A", "> say h\xC3\xA9llo !"); /* up: the line before */
    G4_TYPE("\x15gone\x03", "> ");             /* Ctrl-U, then Ctrl-C: a fresh line */
    G4_TYPE("one two\x1B[1;5D\x0B"
            "2\r",
            "> one 2"); /* word left, Ctrl-K */
    G4_EXPECT(g4_wait_for("answer 5 tokens"), "saw: %s", g4_seen);
    G4_TYPE("\x1B[200~a\nb\x1B[201~", "a\xE2\x86\xB5"
                                      "b"); /* a pasted newline does not send */
    G4_TYPE("\r", "answer 5 tokens");
    G4_TYPE("this line is much longer than the terminal is wide, so it scrolls", "it scrolls");
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
    G4_TYPE("go on\r", "\x1B[?2004l\r\n");
    G4_EXPECT(g4_wait_beyond("\x1B[?2004l\r\n", 8), "it does not speak: %s", g4_seen);
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
    return g4_test_end();
}
