/* terminal.c - the terminal of the line editor: its mode while a line is typed, and the mode it had before, which comes
 * back whatever happens; its size, and whether it can move its cursor. A signal handler may give the mode back, so what
 * that needs is kept here and not by the caller. */
#include "cli.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios mode_before;
static volatile sig_atomic_t is_raw; /* mode_before is to come back */
static int drawn_on;                 /* the descriptor that was told to bracket pastes */

static const char paste_begin[] = "\033[?2004h", paste_end[] = "\033[?2004l"; /* pastes come in brackets from here on */

int terminal_draws(int fd)
{
    const char *term = getenv("TERM");
    return isatty(fd) && term != NULL && term[0] != '\0' && strcmp(term, "dumb") != 0;
}

int terminal_output(void)
{
    return terminal_draws(STDERR_FILENO) ? STDERR_FILENO : terminal_draws(STDOUT_FILENO) ? STDOUT_FILENO : -1;
}

void terminal_size(int *columns, int *rows)
{
    struct winsize size;
    int fd = terminal_output(), is_known = fd >= 0 && ioctl(fd, TIOCGWINSZ, &size) == 0;
    *columns = is_known && size.ws_col > 1 ? size.ws_col : 80;
    *rows = is_known && size.ws_row > 1 ? size.ws_row : 24;
}

/* All of it: a terminal may take it in pieces, or be set not to wait by another program. */
static void write_all(int fd, const char *text, size_t n)
{
    struct pollfd out = { fd, POLLOUT, 0 };
    while (n > 0) {
        ssize_t written = write(fd, text, n);
        if (written < 0 && (errno == EINTR || (errno == EAGAIN && poll(&out, 1, -1) > 0))) continue;
        if (written <= 0) return;
        text += written;
        n -= (size_t)written;
    }
}

void terminal_write(const char *text, size_t n) { write_all(drawn_on, text, n); }

int terminal_raw(void)
{
    struct termios now;
    int output = terminal_output();
    if (output < 0 || tcgetattr(STDIN_FILENO, &now) != 0) return 0;
    if (is_raw && (now.c_lflag & (tcflag_t)(ICANON | ECHO)) == 0) return 1;
    if (!is_raw) mode_before = now;
    now.c_iflag &= ~(tcflag_t)(ICRNL | INLCR | IGNCR | IXON | INPCK | ISTRIP);
    now.c_lflag &= ~(tcflag_t)(ECHO | ICANON | IEXTEN | ISIG);
    now.c_cc[VMIN] = 1;
    now.c_cc[VTIME] = 0;
    drawn_on = output;
    is_raw = 1;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &now);
    write_all(output, paste_begin, sizeof paste_begin - 1);
    return 1;
}

void terminal_restore(void)
{
    if (!is_raw) return;
    tcsetattr(STDIN_FILENO, TCSANOW, &mode_before);
    is_raw = 0;
    write_all(drawn_on, paste_end, sizeof paste_end - 1);
}
