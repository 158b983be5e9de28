/* line.c - the line editor of the chat. What is typed may be wider than the terminal and have several lines: it is
 * drawn over as many rows as it takes, from the prompt on, and of those that do not fit on the screen the ones around
 * the cursor. Each key is an action on the text, then the rows are drawn again. Where the terminal cannot do this
 * (TERM=dumb, input from elsewhere) lines are read as they come. */
#include "cli.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

typedef struct {
    const char *prompt;
    buffer text;
    size_t cursor; /* a byte offset between characters */
    const line_aids *aids;
    keys keys;
    int shown;        /* line of the history on display; n: the new one */
    buffer draft;     /* the new line while an old one is on display */
    int width, above; /* of the last drawing: columns of the terminal, rows above the cursor */
    int top;          /* the first row on display */
} line_editor;

/* ---- Rows ----------------------------------------------------------------------------------------- */

typedef struct { /* a place on the way through a text that is drawn */
    size_t pos;
    int row, column;      /* column may be the width: what comes next stands in the next row */
    drawn_character here; /* the character at pos, which stands there; zero at the end */
} place;

static int tab_columns(int column) { return 8 - column % 8; }

/* What stands at p->pos, and whether it takes a new row. */
static void place_look(place *p, const buffer *text, int width)
{
    p->here = (drawn_character) { 0 };
    if (p->pos >= text->len) return;
    p->here = character_at(text->data + p->pos, text->len - p->pos);
    char c = text->data[p->pos];
    if (c == '\n') p->here.columns = 0;
    if (c == '\t') p->here.columns = p->column < width ? tab_columns(p->column) : 8;
    if (c == '\t' && p->column < width && p->column + p->here.columns > width) p->here.columns = width - p->column;
    if (p->column + p->here.columns > width) {
        p->row++;
        p->column = 0;
    }
}

static place place_first(const buffer *text, int width)
{
    place p = { 0 };
    place_look(&p, text, width);
    return p;
}

static void place_next(place *p, const buffer *text, int width)
{
    int is_newline = text->data[p->pos] == '\n';
    p->pos += p->here.bytes;
    p->column = is_newline ? 0 : p->column + p->here.columns;
    p->row += is_newline;
    place_look(p, text, width);
}

/* Where a cursor stands that is in front of what is at p: not behind the last column. */
static place cursor_place(place p, const buffer *text, int width)
{
    if (p.column < width) return p;
    if (p.pos < text->len) { /* a newline, since all else would have gone to the next row */
        p.column = width - 1;
        return p;
    }
    p.row++;
    p.column = 0;
    return p;
}

static place place_of(const buffer *text, size_t pos, int width)
{
    place p = place_first(text, width);
    while (p.pos < pos) place_next(&p, text, width);
    return cursor_place(p, text, width);
}

/* The character nearest to a place: in that row, at most that column; in a row without any, its start. */
static size_t position_at(const buffer *text, int row, int column, int width)
{
    place p = place_first(text, width);
    size_t found = text->len;
    for (int is_found = 0;; place_next(&p, text, width)) {
        place seen = cursor_place(p, text, width);
        if (seen.row > row && is_found) break;
        if (seen.row == row && (seen.column <= column || !is_found)) {
            found = seen.pos;
            is_found = 1;
        }
        if (p.pos >= text->len) break;
    }
    return found;
}

/* ---- Drawing -------------------------------------------------------------------------------------- */

/* Prompt and text, one behind the other. */
static void shown_text(const line_editor *l, buffer *out)
{
    buffer_str(out, l->prompt);
    buffer_add(out, buffer_text(&l->text), l->text.len);
}

static void draw_character(buffer *out, const buffer *text, const place *p, int width)
{
    const char *c = text->data + p->pos;
    if (*c == '\t')
        buffer_fmt(out, "%*s", p->here.columns, "");
    else if (p->here.is_hidden)
        buffer_str(out, "?");
    else if (*c != '\n') {
        if (p->here.needs_base) buffer_str(out, " ");
        buffer_add(out, c, p->here.bytes);
    }
    if (p->here.is_uncertain && p->column + p->here.columns < width) { /* go on where we take it to end */
        buffer_fmt(out, "\033[%dG\033[K", p->column + p->here.columns + 1);
    }
}

/* The rows from `top` on that fit, over those drawn before. A row that is full is left to the terminal to break, which
 * then knows the rows as one line when its width changes; *row gets the row in which it ends. */
static void draw_rows(buffer *out, const buffer *text, int top, int rows, int width, int *row)
{
    int is_full = 0, drawn_row = top;
    for (place p = place_first(text, width); p.pos < text->len; place_next(&p, text, width)) {
        if (p.row >= top + rows) break;
        if (p.row < top) continue;
        if (p.row > drawn_row && !is_full) buffer_str(out, "\r\n");
        drawn_row = p.row;
        draw_character(out, text, &p, width);
        int is_newline = text->data[p.pos] == '\n', end = p.column + p.here.columns;
        is_full = !is_newline && end == width && !p.here.is_uncertain;
        if (is_newline && p.pos + p.here.bytes == text->len && p.row + 1 < top + rows) {
            buffer_str(out, "\r\n");
            drawn_row++;
        }
    }
    *row = drawn_row;
}

static void line_draw(line_editor *l)
{
    int width, rows, last;
    buffer text = { 0 }, out = { 0 };
    terminal_size(&width, &rows);
    rows -= rows / 3; /* the others keep what was said before: why a long message was refused, say */
    shown_text(l, &text);
    if (text.failed) {
        buffer_free(&text);
        return;
    }
    place at = place_of(&text, strlen(l->prompt) + l->cursor, width);
    if (l->width != width && l->width > 0) l->above = at.row; /* the terminal has broken its lines anew */
    if (l->above >= rows) l->above = rows - 1;
    if (at.row < l->top) l->top = at.row;
    if (at.row >= l->top + rows) l->top = at.row - rows + 1;
    buffer_str(&out, "\r");
    if (l->above > 0) buffer_fmt(&out, "\033[%dA", l->above);
    buffer_str(&out, "\033[J");
    draw_rows(&out, &text, l->top, rows, width, &last);
    if (at.row > last) buffer_str(&out, "\r\n"); /* the cursor stands behind a row that is full */
    if (at.row < last) buffer_fmt(&out, "\033[%dA", last - at.row);
    buffer_str(&out, "\r");
    if (at.column > 0) buffer_fmt(&out, "\033[%dC", at.column);
    l->width = width;
    l->above = at.row - l->top;
    if (!out.failed) terminal_write(out.data, out.len);
    buffer_free(&text);
    buffer_free(&out);
}

/* Leave what is drawn where it is; what comes next stands below. */
static void line_leave(line_editor *l)
{
    size_t cursor = l->cursor;
    l->cursor = l->text.len;
    line_draw(l);
    l->cursor = cursor;
    l->above = l->top = l->width = 0;
    terminal_write("\r\n", 2);
}

static void line_ring(void) { terminal_write("\a", 1); }

/* ---- Characters, words, lines of the text --------------------------------------------------------- */

static size_t line_start(const line_editor *l)
{
    size_t pos = l->cursor;
    while (pos > 0 && l->text.data[pos - 1] != '\n') pos--;
    return pos;
}

static size_t line_stop(const line_editor *l)
{
    size_t pos = l->cursor;
    while (pos < l->text.len && l->text.data[pos] != '\n') pos++;
    return pos;
}

static size_t right_of_cursor(const line_editor *l)
{
    if (l->cursor >= l->text.len) return l->cursor;
    return l->cursor + character_at(l->text.data + l->cursor, l->text.len - l->cursor).bytes;
}

/* What one character is, only the text in front of it tells: from the start of its line on. */
static size_t left_of_cursor(const line_editor *l)
{
    size_t pos = line_start(l), before = pos > 0 ? pos - 1 : 0;
    while (pos < l->cursor) {
        before = pos;
        pos += character_at(l->text.data + pos, l->text.len - pos).bytes;
    }
    return before;
}

static int is_blank(const line_editor *l, size_t pos) { return strchr(" \t\n", l->text.data[pos]) != NULL; }

static size_t word_before(const line_editor *l)
{
    size_t pos = l->cursor;
    while (pos > 0 && is_blank(l, pos - 1)) pos--;
    while (pos > 0 && !is_blank(l, pos - 1)) pos--;
    return pos;
}

static size_t word_behind(const line_editor *l)
{
    size_t pos = l->cursor;
    while (pos < l->text.len && is_blank(l, pos)) pos++;
    while (pos < l->text.len && !is_blank(l, pos)) pos++;
    return pos;
}

/* ---- Changes -------------------------------------------------------------------------------------- */

static void line_insert(line_editor *l, const char *data, size_t n)
{
    size_t tail = l->text.len - l->cursor;
    buffer_add(&l->text, data, n); /* grows; the bytes then move to their place */
    if (l->text.failed || n == 0) return;
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

static void line_set(line_editor *l, const char *text)
{
    l->text.len = 0;
    buffer_str(&l->text, text);
    l->cursor = l->text.len;
}

static int history_size(const line_editor *l)
{
    return l->aids != NULL && l->aids->history != NULL ? l->aids->history->n : 0;
}

static void line_recall(line_editor *l, int index)
{
    int n = history_size(l);
    if (index < 0 || index > n) return;
    if (l->shown == n) {
        l->draft.len = 0;
        buffer_add(&l->draft, buffer_text(&l->text), l->text.len);
    }
    l->shown = index;
    line_set(l, index < n ? l->aids->history->lines[index] : buffer_text(&l->draft));
}

/* One row up or down; 0: there is none. */
static int go_row(line_editor *l, int by)
{
    int width, rows;
    size_t n_prompt = strlen(l->prompt);
    buffer text = { 0 };
    terminal_size(&width, &rows);
    shown_text(l, &text);
    place at = place_of(&text, n_prompt + l->cursor, width), end = place_of(&text, text.len, width);
    int is_there = at.row + by >= 0 && at.row + by <= end.row;
    if (is_there) {
        size_t pos = position_at(&text, at.row + by, at.column, width);
        l->cursor = pos > n_prompt ? pos - n_prompt : 0;
    }
    buffer_free(&text);
    return is_there;
}

static void line_up(line_editor *l)
{
    if (!go_row(l, -1)) line_recall(l, l->shown - 1);
}

static void line_down(line_editor *l)
{
    if (!go_row(l, 1)) line_recall(l, l->shown + 1);
}

/* To the start of the line; from there, the line joins the one before. */
static void delete_to_start(line_editor *l)
{
    size_t start = line_start(l);
    line_delete(l, start < l->cursor || start == 0 ? start : start - 1, l->cursor);
}

static void delete_to_stop(line_editor *l)
{
    size_t stop = line_stop(l), cursor = l->cursor;
    line_delete(l, cursor, stop > cursor || stop == l->text.len ? stop : stop + 1);
    l->cursor = cursor;
}

/* A paste comes in pieces when its sender pauses: what there is, is shown. */
static void line_paste(line_editor *l)
{
    int is_done = 0;
    while (!is_done) {
        buffer piece = { 0 }, fit = { 0 };
        is_done = keys_paste(&l->keys, &piece);
        buffer_utf8(&fit, buffer_text(&piece), piece.len);
        if (!fit.failed) line_insert(l, buffer_text(&fit), fit.len);
        l->text.failed |= piece.failed | fit.failed;
        buffer_free(&piece);
        buffer_free(&fit);
        if (!is_done) line_draw(l);
    }
}

static void insert_character(line_editor *l, int first)
{
    char bytes[4];
    buffer fit = { 0 };
    buffer_utf8(&fit, bytes, keys_character(&l->keys, first, bytes));
    line_insert(l, buffer_text(&fit), fit.len);
    buffer_free(&fit);
}

/* ---- Candidates ----------------------------------------------------------------------------------- */

static void add_candidates(buffer *out, const completion *c)
{
    enum { MAX_SHOWN = 200 };
    int width, rows, widest = 1, n = c->n < MAX_SHOWN ? c->n : MAX_SHOWN;
    terminal_size(&width, &rows);
    for (int i = 0; i < n; i++) {
        int columns = text_columns(buffer_text(&c->list[i].shown), c->list[i].shown.len);
        if (columns > widest) widest = columns;
    }
    int per_row = width > widest + 2 ? width / (widest + 2) : 1, n_rows = (n + per_row - 1) / per_row;
    for (int row = 0; row < n_rows; row++) {
        for (int i = row; i < n; i += n_rows) { /* down the columns, as ls has them */
            const buffer *name = &c->list[i].shown;
            int gap = i + n_rows < n ? widest + 2 - text_columns(name->data, name->len) : 0;
            buffer_fmt(out, "%s%*s", name->data, gap, "");
        }
        buffer_str(out, "\r\n");
    }
    if (n < c->n) buffer_fmt(out, "and %d more\r\n", c->n - n);
}

/* What is typed becomes what all candidates begin with; when it is that already, they are listed. */
static void line_complete(line_editor *l)
{
    completion c = { 0 };
    if (l->aids == NULL || l->aids->complete == NULL || !l->aids->complete(buffer_text(&l->text), l->cursor, &c)) {
        line_insert(l, "\t", 1);
        return;
    }
    size_t n = c.n > 0 ? completion_common(&c) : 0, n_typed = l->cursor - c.from;
    const char *text = c.n > 0 ? buffer_text(&c.list[0].text) : "";
    if (c.n == 0) {
        line_ring();
    } else if (n > n_typed || (c.n == 1 && (n != n_typed || memcmp(text, l->text.data + c.from, n) != 0))) {
        line_delete(l, c.from, l->cursor);
        line_insert(l, text, n);
    } else if (c.n > 1) {
        buffer list = { 0 };
        add_candidates(&list, &c);
        line_leave(l);
        if (!list.failed) terminal_write(list.data, list.len);
        buffer_free(&list);
    }
    completion_free(&c);
}

/* ---- Searching the history ------------------------------------------------------------------------ */

/* The nearest line with the query in it, from `from` on in steps of by; -1: none. */
static int find_line(const line_history *h, const char *query, int from, int by)
{
    for (int i = from; i >= 0 && i < h->n; i += by) {
        if (strstr(h->lines[i], query) != NULL) return i;
    }
    return -1;
}

typedef struct {
    const line_history *history;
    buffer query, prompt;
    buffer old; /* the line before, */
    size_t cursor;
    int found, failed; /* found: the line on display; -1: the old one */
} line_search;

static void search_show(line_search *s, line_editor *l)
{
    const char *line = s->found >= 0 ? s->history->lines[s->found] : buffer_text(&s->old);
    const char *match = s->found >= 0 ? strstr(line, buffer_text(&s->query)) : line + s->cursor;
    line_set(l, line);
    if (match != NULL) l->cursor = (size_t)(match - line);
    s->prompt.len = 0;
    buffer_fmt(&s->prompt, "(%s: %s) ", s->failed ? "not found" : "search", buffer_text(&s->query));
    if (!s->prompt.failed) l->prompt = s->prompt.data;
    if (!keys_waiting(&l->keys)) line_draw(l);
}

/* The query without its last character. */
static void drop_last(buffer *query)
{
    while (query->len > 0 && ((unsigned char)query->data[query->len - 1] & 0xC0) == 0x80) query->len--;
    if (query->len > 0) query->data[--query->len] = '\0';
}

/* Obey a key; 0: it ends the search. */
static int search_key(line_search *s, keys *k, int key)
{
    int newest = s->history->n - 1, from = s->found >= 0 ? s->found : newest, by = -1;
    if (key == KEY_NONE || key == KEY_DRAW) return 1;
    if (key == CONTROL('R')) {
        if (s->found >= 0) from--;
    } else if (key == CONTROL('S')) {
        by = 1;
        from++;
    } else if (key == 127 || key == CONTROL('H')) {
        drop_last(&s->query);
        from = newest;
    } else if (key >= 0x20 && key < 0x100) {
        char bytes[4];
        buffer_utf8(&s->query, bytes, keys_character(k, key, bytes));
    } else {
        return 0;
    }
    int line = s->query.len > 0 ? find_line(s->history, s->query.data, from, by) : -1;
    s->failed = line < 0 && s->query.len > 0;
    if (line >= 0 || s->query.len == 0) s->found = line;
    return 1;
}

/* What Ctrl-R begins: typed characters are looked for, in older lines first. Returns the key that ended it and is yet
 * to be obeyed, or KEY_NONE where it gave up. */
static int search_lines(line_editor *l)
{
    const char *prompt = l->prompt;
    line_search s = { .history = l->aids != NULL ? l->aids->history : NULL, .cursor = l->cursor, .found = -1 };
    int key = KEY_NONE;
    if (s.history == NULL || s.history->n == 0) {
        line_ring();
        return KEY_NONE;
    }
    buffer_add(&s.old, buffer_text(&l->text), l->text.len);
    do {
        search_show(&s, l);
        key = keys_read(&l->keys);
    } while (search_key(&s, &l->keys, key));
    l->prompt = prompt;
    if (key == KEY_ESCAPE || key == CONTROL('G')) {
        s.found = -1;
        key = KEY_NONE;
    }
    if (s.found < 0) {
        line_set(l, buffer_text(&s.old));
        l->cursor = s.cursor;
    } else {
        if (l->shown == s.history->n) {
            buffer_free(&l->draft);
            l->draft = s.old; /* moves */
            s.old = (buffer) { 0 };
        }
        l->shown = s.found;
    }
    buffer_free(&s.query);
    buffer_free(&s.prompt);
    buffer_free(&s.old);
    return key;
}

/* ---- Keys ----------------------------------------------------------------------------------------- */

/* Ctrl-Z: the shell's turn. The terminal is as it found it, and the line is drawn again when it gives the word back. */
static void line_suspend(line_editor *l)
{
    line_leave(l);
    terminal_restore();
    kill(0, SIGTSTP); /* all programs of the pipeline, as the terminal does it */
}

/* The action of a key that is no character. */
static void line_act(line_editor *l, int key)
{
    switch (key) {
    case 127:
    case CONTROL('H'): line_delete(l, left_of_cursor(l), l->cursor); break;
    case CONTROL('D'):
    case KEY_DELETE: line_delete(l, l->cursor, right_of_cursor(l)); break;
    case CONTROL('A'):
    case KEY_HOME: l->cursor = line_start(l); break;
    case CONTROL('E'):
    case KEY_LAST: l->cursor = line_stop(l); break;
    case CONTROL('B'):
    case KEY_LEFT: l->cursor = left_of_cursor(l); break;
    case CONTROL('F'):
    case KEY_RIGHT: l->cursor = right_of_cursor(l); break;
    case KEY_ALT + 'b':
    case KEY_WORD_LEFT: l->cursor = word_before(l); break;
    case KEY_ALT + 'f':
    case KEY_WORD_RIGHT: l->cursor = word_behind(l); break;
    case KEY_ALT + 'd': line_delete(l, l->cursor, word_behind(l)); break;
    case KEY_ALT + 127:
    case CONTROL('W'): line_delete(l, word_before(l), l->cursor); break;
    case CONTROL('U'): delete_to_start(l); break;
    case CONTROL('K'): delete_to_stop(l); break;
    case CONTROL('P'): line_recall(l, l->shown - 1); break;
    case CONTROL('N'): line_recall(l, l->shown + 1); break;
    case KEY_UP: line_up(l); break;
    case KEY_DOWN: line_down(l); break;
    case KEY_ALT + '\r':
    case KEY_ALT + '\n': line_insert(l, "\n", 1); break;
    case KEY_PASTE: line_paste(l); break;
    case '\t': line_complete(l); break;
    case CONTROL('Z'): line_suspend(l); break;
    case CONTROL('L'):
        l->above = 0;
        terminal_write("\033[H\033[2J", 7);
        break;
    }
}

static line_end line_edit(line_editor *l)
{
    int ahead = keys_waiting(&l->keys); /* typed while the terminal still translated: Ctrl-D comes as a zero byte */
    for (;; ahead = 0) {
        if (!keys_waiting(&l->keys)) {
            terminal_raw(); /* again, after the program was stopped */
            line_draw(l);
        }
        int key = keys_read(&l->keys);
        if (key == CONTROL('R')) key = search_lines(l);
        if (key == KEY_ENDED) return interrupted() ? LINE_INTERRUPTED : LINE_ENDED;
        if (key == '\r' || key == '\n') return LINE_READ; /* a newline was typed ahead, as above */
        if (key == CONTROL('C')) return LINE_INTERRUPTED;
        if (l->text.len == 0 && (key == CONTROL('D') || (ahead && key == 0))) return LINE_ENDED;
        if (key >= 0x20 && key < 0x100 && key != 127)
            insert_character(l, key);
        else
            line_act(l, key);
    }
}

/* ---- Reading a line ------------------------------------------------------------------------------- */

/* A line as it comes. The prompt stands where the user sees it, if anywhere. */
static line_end read_plain(const char *prompt, buffer *out)
{
    buffer line = { 0 };
    line_end end = LINE_READ;
    struct pollfd in = { STDIN_FILENO, POLLIN, 0 };
    FILE *f = isatty(STDERR_FILENO) || !isatty(STDOUT_FILENO) ? stderr : stdout;
    fputs(prompt, f);
    fflush(f);
    for (;;) {
        char byte;
        ssize_t n = read(STDIN_FILENO, &byte, 1);
        if (n < 0 && (errno == EINTR || errno == EAGAIN) && !interrupted()) {
            poll(&in, 1, -1); /* another program may have set the terminal not to wait */
            continue;
        }
        if (n <= 0 && (line.len == 0 || interrupted())) end = interrupted() ? LINE_INTERRUPTED : LINE_ENDED;
        if (n <= 0 || byte == '\n') break;
        buffer_add(&line, &byte, 1);
    }
    if (end == LINE_ENDED && isatty(fileno(f))) fputs("\n", f); /* what comes next stands below the prompt */
    out->len = 0;
    buffer_utf8(out, buffer_text(&line), line.len);
    out->failed |= line.failed;
    buffer_free(&line);
    return end;
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

line_end line_read(const char *prompt, line_aids *aids, buffer *out)
{
    key_input typed = { .n = 0 };
    fflush(stdout); /* what was said before stands above it */
    if (!isatty(STDIN_FILENO) || !terminal_raw()) return read_plain(prompt, out);
    line_editor l = { .prompt = prompt, .text = *out, .cursor = out->len, .aids = aids };
    l.shown = history_size(&l);
    keys_begin(&l.keys, aids != NULL ? &aids->ahead : &typed);
    line_end end = line_edit(&l);
    line_leave(&l);
    keys_end(&l.keys);
    terminal_restore();
    buffer_free(&l.draft);
    *out = l.text;
    if (out->failed) return LINE_ENDED;
    if (end == LINE_READ && aids != NULL && aids->history != NULL) history_add(aids->history, buffer_text(out));
    return end;
}
