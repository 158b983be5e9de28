/* keys.c - keys from the bytes that a terminal sends: characters, control keys, escape sequences, pastes in brackets.
 * What is no key of ours is taken whole, so that nothing of it ends up in the text. */
#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

/* Milliseconds to wait for the next byte of a key: behind an escape byte, which may be a key of its own; where more has
 * to come, which a network may hold back; and in a string, which comes at once if it is not the key that begins so. */
enum { WITHIN_ESCAPE = 500, WITHIN_SEQUENCE = 10000, WITHIN_STRING = 100, WITHIN_PASTE = 500 };
enum { ESCAPE = 033, BELL = 7, CTRL_C = CONTROL('C'), MAX_SEQUENCE = 32 };

/* ---- Bytes ---------------------------------------------------------------------------------------- */

static void on_nothing(int number) { (void)number; }

void keys_begin(keys *k, key_input *ahead)
{
    struct sigaction nothing = { .sa_handler = on_nothing };
    static const int caught[] = { SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGCONT };
    sigset_t ours;
    *k = (keys) { .ahead = ahead };
    sigemptyset(&ours);
    for (size_t i = 0; i < sizeof caught / sizeof caught[0]; i++) sigaddset(&ours, caught[i]);
    sigaction(SIGWINCH, &nothing, &k->old_resize); /* the wait for a byte ends, and the line is drawn again */
    sigaction(SIGCONT, &nothing, &k->old_continue);
    sigprocmask(SIG_BLOCK, &ours, &k->old_mask); /* they come while we wait, and at no other time */
}

void keys_end(keys *k)
{
    sigprocmask(SIG_SETMASK, &k->old_mask, NULL);
    sigaction(SIGWINCH, &k->old_resize, NULL);
    sigaction(SIGCONT, &k->old_continue, NULL);
}

/* Wait for input, as long as it takes when milliseconds is below 0. 1: there is some, 0: none in that time, -1: a
 * signal came. */
static int wait_for_input(const keys *k, int milliseconds)
{
    fd_set in;
    struct timespec limit = { milliseconds / 1000, milliseconds % 1000 * 1000000L };
    FD_ZERO(&in);
    FD_SET(STDIN_FILENO, &in);
    int n = pselect(STDIN_FILENO + 1, &in, NULL, NULL, milliseconds < 0 ? NULL : &limit, &k->old_mask);
    return n < 0 ? -1 : n > 0;
}

int keys_waiting(const keys *k) { return k->ahead->at < k->ahead->n || wait_for_input(k, 0) > 0; }

/* The byte that was read last is read again. */
static void put_back(keys *k, int c)
{
    if (c >= 0) k->ahead->at--;
}

/* The next byte, or KEY_ENDED, KEY_NONE (not in that time) or KEY_DRAW (the terminal has changed). */
static int byte_read(keys *k, int milliseconds)
{
    key_input *in = k->ahead;
    while (!interrupted()) { /* no signal comes between this and the wait */
        if (in->at < in->n) return in->bytes[in->at++];
        int found = wait_for_input(k, milliseconds);
        if (found < 0) return interrupted() ? KEY_ENDED : KEY_DRAW;
        if (found == 0) return KEY_NONE;
        ssize_t n = read(STDIN_FILENO, in->bytes, sizeof in->bytes);
        if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN)) break;
        in->at = 0;
        in->n = n > 0 ? (size_t)n : 0;
    }
    return KEY_ENDED;
}

/* A byte that belongs to a key which has begun; KEY_NONE: the key ends without it. */
static int byte_within(keys *k, int milliseconds)
{
    int c;
    do c = byte_read(k, milliseconds);
    while (c == KEY_DRAW);
    return c;
}

/* ---- Keys ----------------------------------------------------------------------------------------- */

size_t keys_character(keys *k, int first, char out[4])
{
    size_t want = first < 0xC2 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 1, n = 1;
    out[0] = (char)first;
    while (n < want) {
        int c = byte_within(k, WITHIN_SEQUENCE);
        if (c < 0x80 || c > 0xBF) { /* it is not whole, and this belongs to the next key */
            put_back(k, c);
            break;
        }
        out[n++] = (char)c;
    }
    return n;
}

static int named_key(const char *sequence)
{
    static const struct {
        const char *sequence;
        int key;
    } names[] = {
        { "A", KEY_UP },
        { "B", KEY_DOWN },
        { "C", KEY_RIGHT },
        { "D", KEY_LEFT },
        { "1;5C", KEY_WORD_RIGHT },
        { "1;5D", KEY_WORD_LEFT },
        { "1;3C", KEY_WORD_RIGHT },
        { "1;3D", KEY_WORD_LEFT },
        { "H", KEY_HOME },
        { "1~", KEY_HOME },
        { "7~", KEY_HOME },
        { "F", KEY_LAST },
        { "4~", KEY_LAST },
        { "8~", KEY_LAST },
        { "3~", KEY_DELETE },
        { "200~", KEY_PASTE },
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(sequence, names[i].sequence) == 0) return names[i].key;
    }
    return KEY_NONE;
}

/* Behind ESC [ come parameters and one byte that ends it (ECMA-48, 5.4). What cannot stand there begins a key. */
static int control_sequence(keys *k)
{
    char sequence[MAX_SEQUENCE];
    size_t n = 0;
    for (;;) {
        int c = byte_within(k, WITHIN_SEQUENCE);
        if (c < 0x20 || c > 0x7E) {
            put_back(k, c);
            return KEY_NONE;
        }
        if (n + 1 < sizeof sequence) sequence[n++] = (char)c;
        if (c == '[' && n == 1) { /* a function key of the Linux console: one more letter */
            byte_within(k, WITHIN_SEQUENCE);
            return KEY_NONE;
        }
        if (c >= 0x40) break;
    }
    sequence[n] = '\0';
    return named_key(sequence);
}

/* Behind ESC ] and its like a text of the terminal's own, up to a bell or ESC \. */
static int control_string(keys *k)
{
    for (int before = 0;;) {
        int c = byte_within(k, WITHIN_STRING);
        if (c == CTRL_C) put_back(k, c);
        if (c < 0 || c == BELL || c == CTRL_C || (before == ESCAPE && c == '\\')) return KEY_NONE;
        before = c;
    }
}

/* What an escape byte begins: a key with Alt, or one that has a sequence of its own. */
static int escaped_key(keys *k)
{
    char letter[2] = "", character[4];
    int c = byte_within(k, WITHIN_ESCAPE);
    if (c == KEY_NONE) return KEY_ESCAPE;
    if (c == '[') return control_sequence(k);
    if (c == 'O') {
        c = byte_within(k, WITHIN_SEQUENCE);
        letter[0] = c > 0x20 && c < 0x7F ? (char)c : '\0';
        if (letter[0] == '\0') put_back(k, c);
        return named_key(letter);
    }
    if (c == ']' || c == 'P' || c == '_' || c == '^' || c == 'X') return control_string(k);
    if (c == ESCAPE || c == CTRL_C || c < 0) {
        put_back(k, c);
        return KEY_ESCAPE;
    }
    if (c < 0x80) return KEY_ALT + c;
    keys_character(k, c, character);
    return KEY_NONE;
}

int keys_read(keys *k)
{
    int c = byte_read(k, -1);
    return c == ESCAPE ? escaped_key(k) : c;
}

int keys_paste(keys *k, buffer *out)
{
    static const char bracket[] = "\033[201~";
    for (;;) {
        int is_whole = out->len > 0 && (unsigned char)out->data[out->len - 1] < 0x80; /* no character is cut here */
        int c = byte_read(k, is_whole ? WITHIN_PASTE : -1);
        if (c == KEY_NONE || c == KEY_DRAW) return 0;
        if (c == KEY_ENDED || c == CTRL_C) {
            put_back(k, c);
            return 1;
        }
        if (c == bracket[k->n_matched]) {
            if (++k->n_matched < sizeof bracket - 1) continue;
            k->n_matched = 0;
            return 1;
        }
        buffer_add(out, bracket, k->n_matched);
        k->n_matched = c == bracket[0];
        if (k->n_matched == 0 && !(c == '\n' && k->was_return))
            buffer_add(out, c == '\r' ? "\n" : &(char) { (char)c }, 1);
        k->was_return = c == '\r';
    }
}
