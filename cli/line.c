/* line.c - the line editor of the chat. A line of the user is one row on the terminal that scrolls sideways, UTF-8
 * throughout; Alt-Enter and pasted newlines become part of it. Each key is an action on the line, then the row is drawn
 * again. Where the terminal cannot do this (TERM=dumb, input from elsewhere) lines are read as they come. */
#include "cli.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* ---- History ---------------------------------------------------------------------------------- */

static void history_add(line_history *h, const char *line)
{
    if (line[0] == '\0' || (h->n > 0 && strcmp(h->lines[h->n - 1], line) == 0)) return;
    char **grown = realloc(h->lines, ((size_t)h->n + 1) * sizeof *grown);
    if (grown == NULL) return; /* a line forgotten is no reason to stop */
    h->lines = grown;
    size_t size = strlen(line) + 1;
    char *copy = malloc(size);
    if (copy == NULL) return;
    memcpy(copy, line, size);
    h->lines[h->n++] = copy;
}

void history_free(line_history *h)
{
    for (int i = 0; i < h->n; i++) free(h->lines[i]);
    free(h->lines);
    *h = (line_history) { 0 };
}

/* ---- Characters and words ------------------------------------------------------------------------ */

static int continues(const buffer *b, size_t pos) { return ((unsigned char)b->data[pos] & 0xC0) == 0x80; }

/* Bytes of the character at pos. */
static size_t character_bytes(const buffer *b, size_t pos)
{
    size_t n = 1;
    while (pos + n < b->len && continues(b, pos + n)) n++;
    return n;
}

static size_t character_before(const buffer *b, size_t pos)
{
    do pos--;
    while (pos > 0 && continues(b, pos));
    return pos;
}

/* Columns of the character at pos on a terminal: 0 for what combines, 2 for wide scripts and emoji. */
static int character_columns(const buffer *b, size_t pos)
{
    static const struct {
        uint32_t first, last;
        int columns;
    } ranges[] = {
        { 0x0300, 0x036F, 0 },   { 0x1100, 0x115F, 2 },   { 0x200B, 0x200F, 0 },   { 0x20D0, 0x20FF, 0 },
        { 0x2E80, 0xA4CF, 2 },   { 0xAC00, 0xD7A3, 2 },   { 0xF900, 0xFAFF, 2 },   { 0xFE00, 0xFE0F, 0 },
        { 0xFE30, 0xFE6F, 2 },   { 0xFF00, 0xFF60, 2 },   { 0xFFE0, 0xFFE6, 2 },   { 0x1F300, 0x1F64F, 2 },
        { 0x1F680, 0x1F6FF, 2 }, { 0x1F900, 0x1F9FF, 2 }, { 0x20000, 0x3FFFD, 2 },
    };
    size_t n = character_bytes(b, pos);
    uint32_t c = (unsigned char)b->data[pos];
    if (n > 1) c &= 0x7Fu >> n;
    for (size_t i = 1; i < n; i++) c = c << 6 | ((unsigned char)b->data[pos + i] & 0x3Fu);
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (c >= ranges[i].first && c <= ranges[i].last) return ranges[i].columns;
    }
    return 1;
}

static int is_blank(const buffer *b, size_t pos) { return b->data[pos] == ' ' || b->data[pos] == '\n'; }

static size_t word_before(const buffer *b, size_t pos)
{
    while (pos > 0 && is_blank(b, pos - 1)) pos--;
    while (pos > 0 && !is_blank(b, pos - 1)) pos--;
    return pos;
}

static size_t word_behind(const buffer *b, size_t pos)
{
    while (pos < b->len && is_blank(b, pos)) pos++;
    while (pos < b->len && !is_blank(b, pos)) pos++;
    return pos;
}

/* ---- The row ------------------------------------------------------------------------------------- */

typedef struct {
    const char *prompt;
    buffer text;
    size_t cursor; /* a byte offset between characters */
    line_history *history;
    int shown;    /* line of the history on display; n: the new one */
    buffer draft; /* the new line while an old one is on display */
} line_editor;
typedef void (*line_action)(line_editor *l);

/* The first character of the row: as much in front of the cursor as fits. *columns gets what that takes. */
static size_t row_start(const line_editor *l, int room, int *columns)
{
    size_t first = l->cursor;
    *columns = 0;
    while (first > 0) {
        size_t previous = character_before(&l->text, first);
        int wider = *columns + character_columns(&l->text, previous);
        if (wider > room) break;
        *columns = wider;
        first = previous;
    }
    return first;
}

static void line_draw(const line_editor *l)
{
    struct winsize size;
    int width = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 10 ? size.ws_col : 80;
    int room = width - (int)strlen(l->prompt) - 1, before, used = 0;
    size_t pos = row_start(l, room, &before), n;
    buffer row = { 0 };
    buffer_fmt(&row, "\r%s", l->prompt);
    for (; pos < l->text.len; pos += n) {
        size_t whole;
        n = character_bytes(&l->text, pos);
        used += character_columns(&l->text, pos);
        if (used > room) break;
        if (l->text.data[pos] == '\n')
            buffer_str(&row, "\xE2\x86\xB5"); /* a return arrow */
        else if (l->text.data[pos] == '\t' || !is_harmless(l->text.data + pos, n, USE_TEXT, &whole))
            buffer_str(&row, "?");
        else
            buffer_add(&row, l->text.data + pos, n);
    }
    buffer_fmt(&row, "\033[K\r\033[%dC", (int)strlen(l->prompt) + before);
    if (!row.failed) fwrite(row.data, 1, row.len, stdout);
    fflush(stdout);
    buffer_free(&row);
}

/* ---- Changes of the line -------------------------------------------------------------------------- */

static void line_insert(line_editor *l, const char *data, size_t n)
{
    size_t tail = l->text.len - l->cursor;
    buffer_add(&l->text, data, n); /* grows; the bytes then move to their place */
    if (l->text.failed) return;
    memmove(l->text.data + l->cursor + n, l->text.data + l->cursor, tail);
    memcpy(l->text.data + l->cursor, data, n);
    l->cursor += n;
}

static void line_delete(line_editor *l, size_t from, size_t to)
{
    if (from >= to) return;
    memmove(l->text.data + from, l->text.data + to, l->text.len - to + 1);
    l->text.len -= to - from;
    l->cursor = from;
}

static void line_recall(line_editor *l, int index)
{
    if (l->history == NULL || index < 0 || index > l->history->n) return;
    if (l->shown == l->history->n) {
        l->draft.len = 0;
        buffer_add(&l->draft, l->text.data, l->text.len);
    }
    l->shown = index;
    l->text.len = 0;
    buffer_str(&l->text, index < l->history->n ? l->history->lines[index] : buffer_text(&l->draft));
    l->cursor = l->text.len;
}

static void recall_older(line_editor *l) { line_recall(l, l->shown - 1); }
static void recall_newer(line_editor *l) { line_recall(l, l->shown + 1); }

static size_t cursor_right_of(const line_editor *l)
{
    return l->cursor < l->text.len ? l->cursor + character_bytes(&l->text, l->cursor) : l->cursor;
}
static size_t cursor_left_of(const line_editor *l) { return l->cursor > 0 ? character_before(&l->text, l->cursor) : 0; }

static void go_right(line_editor *l) { l->cursor = cursor_right_of(l); }
static void go_left(line_editor *l) { l->cursor = cursor_left_of(l); }
static void go_word_right(line_editor *l) { l->cursor = word_behind(&l->text, l->cursor); }
static void go_word_left(line_editor *l) { l->cursor = word_before(&l->text, l->cursor); }
static void go_first(line_editor *l) { l->cursor = 0; }
static void go_last(line_editor *l) { l->cursor = l->text.len; }

static void delete_right(line_editor *l) { line_delete(l, l->cursor, cursor_right_of(l)); }
static void delete_left(line_editor *l) { line_delete(l, cursor_left_of(l), l->cursor); }
static void delete_word_left(line_editor *l) { line_delete(l, word_before(&l->text, l->cursor), l->cursor); }
static void delete_to_first(line_editor *l) { line_delete(l, 0, l->cursor); }
static void delete_to_last(line_editor *l) { line_delete(l, l->cursor, l->text.len); }

/* ---- Keys ----------------------------------------------------------------------------------------- */

enum { FOR_EVER = -1, WITHIN_A_KEY = 50 }; /* milliseconds to wait for a byte; those of one key come together */

/* The next byte of input, or -1 at its end and when none comes in time. */
static int next_byte(int wait)
{
    unsigned char c;
    struct pollfd in = { STDIN_FILENO, POLLIN, 0 };
    for (;;) {
        if (wait != FOR_EVER && poll(&in, 1, wait) == 0) return -1;
        ssize_t n = read(STDIN_FILENO, &c, 1);
        if (n == 1) return c;
        if (n == 0 || errno != EINTR || interrupted()) return -1;
    }
}

/* A paste, up to its closing bracket ESC [ 201 ~. */
static void insert_paste(line_editor *l)
{
    static const char bracket[] = "\033[201~";
    size_t matched = 0;
    int c;
    while (matched < sizeof bracket - 1 && (c = next_byte(FOR_EVER)) >= 0) {
        char byte = c == '\r' ? '\n' : (char)c;
        if (byte == bracket[matched]) {
            matched++;
            continue;
        }
        line_insert(l, bracket, matched);
        matched = byte == bracket[0];
        if (matched == 0) line_insert(l, &byte, 1);
    }
}

/* What follows an escape byte and [ or O: parameters, then one letter or ~. */
static void key_sequence(line_editor *l)
{
    static const struct {
        const char *sequence;
        line_action act;
    } keys[] = {
        { "A", recall_older },     { "B", recall_newer },    { "C", go_right }, { "D", go_left },
        { "1;5C", go_word_right }, { "1;5D", go_word_left }, { "H", go_first }, { "1~", go_first },
        { "7~", go_first },        { "F", go_last },         { "4~", go_last }, { "8~", go_last },
        { "3~", delete_right },    { "200~", insert_paste },
    };
    char sequence[16];
    size_t n = 0;
    int c = 0;
    while (n + 1 < sizeof sequence && c < 0x40) {
        c = next_byte(WITHIN_A_KEY);
        if (c < 0) return;
        sequence[n++] = (char)c;
    }
    sequence[n] = '\0';
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (strcmp(sequence, keys[i].sequence) == 0) keys[i].act(l);
    }
}

/* What an escape byte begins: a key with Alt, or one that has a sequence of its own. */
static void key_escape(line_editor *l)
{
    switch (next_byte(WITHIN_A_KEY)) {
    case '\r':
    case '\n': line_insert(l, "\n", 1); break; /* Alt-Enter */
    case 'b': go_word_left(l); break;
    case 'f': go_word_right(l); break;
    case '[':
    case 'O': key_sequence(l); break;
    }
}

/* A character that begins with this byte goes into the line as a whole, before the next drawing. */
static void key_character(line_editor *l, int first)
{
    g4_utf8 utf8 = { 0 };
    char byte = (char)first, whole[8];
    size_t n = g4_utf8_push(&utf8, &byte, 1, whole);
    while (n == 0) {
        int c = next_byte(WITHIN_A_KEY);
        byte = (char)c;
        n = c < 0 ? g4_utf8_push(&utf8, NULL, 0, whole) : g4_utf8_push(&utf8, &byte, 1, whole);
    }
    line_insert(l, whole, n);
}

/* The action of a control key, NULL when it has none. */
static line_action key_action(int c)
{
    switch (c) {
    case 'H' & 31:
    case 127: return delete_left;
    case 'D' & 31: return delete_right;
    case 'A' & 31: return go_first;
    case 'E' & 31: return go_last;
    case 'B' & 31: return go_left;
    case 'F' & 31: return go_right;
    case 'P' & 31: return recall_older;
    case 'N' & 31: return recall_newer;
    case 'K' & 31: return delete_to_last;
    case 'U' & 31: return delete_to_first;
    case 'W' & 31: return delete_word_left;
    case 033: return key_escape;
    }
    return NULL;
}

static line_end line_edit(line_editor *l)
{
    struct pollfd in = { STDIN_FILENO, POLLIN, 0 };
    int ahead = poll(&in, 1, 0) > 0; /* typed while the terminal still translated: Ctrl-D comes as a zero byte */
    for (;; ahead = 0) {
        line_draw(l);
        int c = next_byte(FOR_EVER);
        line_action act = key_action(c);
        if (c < 0) return interrupted() ? LINE_INTERRUPTED : LINE_ENDED;
        if (c == '\r' || c == '\n') return LINE_READ; /* a newline was typed ahead, as above */
        if (c == ('C' & 31)) return LINE_INTERRUPTED;
        if (l->text.len == 0 && (c == ('D' & 31) || (ahead && c == 0))) return LINE_ENDED;
        if (c == ('L' & 31))
            fputs("\033[H\033[2J", stdout);
        else if (act != NULL)
            act(l);
        else if (c >= 0x20 || c == '\t')
            key_character(l, c);
    }
}

/* ---- Reading a line ------------------------------------------------------------------------------- */

/* A line as it comes. The prompt stands where the user sees it, if anywhere. */
static line_end read_plain(const char *prompt, buffer *out)
{
    FILE *f = isatty(STDOUT_FILENO) || !isatty(STDERR_FILENO) ? stdout : stderr;
    fputs(prompt, f);
    fflush(f);
    out->len = 0;
    for (size_t n = 0;; n++) {
        int c = next_byte(FOR_EVER);
        char byte = (char)c;
        if (c < 0 && (n == 0 || interrupted())) return interrupted() ? LINE_INTERRUPTED : LINE_ENDED;
        if (c < 0 || c == '\n') return LINE_READ;
        buffer_add(out, &byte, 1);
    }
}

void line_forget_ahead(void) { tcflush(STDIN_FILENO, TCIFLUSH); }

line_end line_ask(const char *question, buffer *answer)
{
    FILE *f = isatty(STDERR_FILENO) ? stderr : isatty(STDOUT_FILENO) ? stdout : fopen("/dev/tty", "w");
    if (f == NULL) return LINE_ENDED;
    fflush(stdout); /* what was said before stands above it */
    line_forget_ahead();
    write_harmless(f, question, strlen(question), USE_MESSAGE);
    fflush(f);
    if (f != stderr && f != stdout) fclose(f);
    return read_plain("", answer);
}

line_end line_read(const char *prompt, line_history *history, buffer *out)
{
    struct termios before, raw;
    const char *term = getenv("TERM");
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || term == NULL || strcmp(term, "dumb") == 0 ||
        tcgetattr(STDIN_FILENO, &before) != 0) {
        return read_plain(prompt, out);
    }
    raw = before;
    raw.c_iflag &= ~(tcflag_t)(ICRNL | IXON | INPCK | ISTRIP);
    raw.c_lflag &= ~(tcflag_t)(ECHO | ICANON | IEXTEN | ISIG);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
    fputs("\033[?2004h", stdout); /* pastes come in brackets */
    line_editor l = { .prompt = prompt, .text = *out, .cursor = out->len, .history = history };
    if (history != NULL) l.shown = history->n;
    line_end end = line_edit(&l);
    go_last(&l);
    line_draw(&l);
    fputs("\033[?2004l\n", stdout);
    fflush(stdout);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
    buffer_free(&l.draft);
    *out = l.text;
    if (out->failed) return LINE_ENDED;
    if (end == LINE_READ && history != NULL && out->len > 0) history_add(history, out->data);
    return end;
}
