/* json.c - JSON: text to trees and strings to text. It begins with the arena in which trees live (many small nodes;
 * base.h's g4_blocks is for few large blocks). What is read from outside as JSON comes through here: conversations,
 * tools, schemas, answers with boxes. A document is RFC 8259 (a byte order mark in front is skipped) and becomes a tree
 * in an arena. A surrogate without its partner, which is no character, becomes U+FFFD. What is refused is not JSON, or
 * not UTF-8. Of members with the same name the place of the first and the value of the last is kept, as Python's json
 * does. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define G4_JSON_MAX_DEPTH 512

/* ---- Arenas -------------------------------------------------------------------------------------- */

#define G4_ARENA_CHUNK 4096 /* bytes taken at a time; what needs more gets a chunk of its own */

struct g4_arena_chunk {
    g4_arena_chunk *next;
    size_t used, size; /* bytes of data[] */
    union {
        g4_arena_chunk *p;
        double d;
        uint64_t u;
    } data[1]; /* aligned for every node */
};

void *g4_arena_alloc(g4_arena *m, size_t n)
{
    if (n > SIZE_MAX / 2) return NULL;
    n = g4_round_up(n, sizeof(m->chunks->data[0]));
    if (m->chunks == NULL || n > m->chunks->size - m->chunks->used) {
        size_t size = n > G4_ARENA_CHUNK ? n : G4_ARENA_CHUNK, total;
        if (g4_add_overflows(size, sizeof(g4_arena_chunk), &total)) return NULL;
        g4_arena_chunk *chunk = g4_alloc(m->a, total, 1);
        if (chunk == NULL) return NULL;
        chunk->size = size;
        chunk->next = m->chunks;
        m->chunks = chunk;
    }
    void *p = (char *)m->chunks->data + m->chunks->used;
    m->chunks->used += n;
    return p;
}

void g4_arena_free(g4_arena *m)
{
    while (m->chunks != NULL) {
        g4_arena_chunk *next = m->chunks->next;
        g4_free(m->a, m->chunks);
        m->chunks = next;
    }
}

/* ---- Sorting, and the end of a call that came early ------------------------------------------------ */

g4_status g4_fail_short(g4_halt *halt, g4_error *err, const char *fmt, ...)
{
    char why[200];
    const g4_status st = g4_halt_check(halt, err);
    if (st != G4_OK) return st;
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    return g4_fail(err, G4_ERR_MEMORY, "%s", why);
}

#define G4_SORT_RUN 4096 /* elements sorted without a question in between */

/* Merge the sorted runs [0, middle) and [middle, n) of `from` into `to`. */
static void g4_sort_merge(char *to, const char *from, size_t middle, size_t n, size_t size,
                          int (*compare)(const void *, const void *), g4_halt *halt)
{
    size_t left = 0, right = middle;
    for (size_t i = 0; i < n; i++) {
        if (i % G4_SORT_RUN == 0 && g4_halted(halt)) return;
        const int takes_left = left < middle && (right == n || compare(from + left * size, from + right * size) <= 0);
        memcpy(to + i * size, from + (takes_left ? left++ : right++) * size, size);
    }
}

int g4_sort(const g4_allocator *a, void *base, size_t n, size_t size, int (*compare)(const void *, const void *),
            g4_halt *halt)
{
    char *from = base;
    if (n <= G4_SORT_RUN) {
        if (n > 1) qsort(base, n, size, compare);
        return 1;
    }
    char *spare = g4_alloc(a, n, size), *to = spare;
    if (spare == NULL) return 0;
    for (size_t i = 0; i < n && !g4_halted(halt); i += G4_SORT_RUN)
        qsort(from + i * size, n - i < G4_SORT_RUN ? n - i : G4_SORT_RUN, size, compare);
    for (size_t run = G4_SORT_RUN; run < n; run *= 2) {
        for (size_t i = 0; i < n && !g4_halted(halt); i += 2 * run)
            g4_sort_merge(to + i * size, from + i * size, n - i < run ? n - i : run, n - i < 2 * run ? n - i : 2 * run,
                          size, compare, halt);
        char *swapped = from;
        from = to;
        to = swapped;
    }
    const int is_whole = from == base || g4_copy(base, from, n * size, halt);
    g4_free(a, spare);
    return is_whole && !g4_halted(halt);
}

/* ---- Numbers ------------------------------------------------------------------------------------- */

static size_t g4_json_digits(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && g4_is_digit(s[i])) i++;
    return i;
}

/* Bytes of the number at the start of s, of which n bytes are left. *wrong: NULL, or what is wrong at the place that is
 * returned instead. */
static size_t g4_json_scan_number(const char *s, size_t n, const char **wrong)
{
    size_t i = n > 0 && s[0] == '-', digits = g4_json_digits(s + i, n - i);
    *wrong = NULL;
    if (digits == 0) {
        *wrong = "expected a digit";
        return i;
    }
    if (digits > 1 && s[i] == '0') {
        *wrong = "a number must not start with 0";
        return 0;
    }
    i += digits;
    if (i < n && s[i] == '.') {
        i++;
        digits = g4_json_digits(s + i, n - i);
        if (digits == 0) *wrong = "expected a digit after the point";
        i += digits;
    }
    if (*wrong == NULL && i < n && (s[i] == 'e' || s[i] == 'E')) {
        i++;
        if (i < n && (s[i] == '+' || s[i] == '-')) i++;
        digits = g4_json_digits(s + i, n - i);
        if (digits == 0) *wrong = "expected a digit in the exponent";
        i += digits;
    }
    return i;
}

int g4_json_is_number(const char *s, size_t n)
{
    const char *wrong;
    return g4_json_scan_number(s, n, &wrong) == n && wrong == NULL;
}

/* The host program may have set a locale with a decimal comma: find out what strtod and snprintf use here. */
static void g4_json_decimal_point(char out[8])
{
    char s[16];
    snprintf(s, sizeof s, "%.1f", 0.5);
    const size_t n = strlen(s);
    size_t size = n > 2 ? n - 2 : 0; /* "0" point "5" */
    if (size > 7) size = 7;
    memcpy(out, s + 1, size);
    out[size] = '\0';
}

/* The double nearest to the NUL-terminated JSON number s; beyond the range it is infinite. Returns 0 when out of
 * memory. */
static int g4_json_double(g4_arena *m, const char *s, double *out)
{
    char point[8];
    const char *dot = strchr(s, '.');
    g4_json_decimal_point(point);
    if (dot != NULL && strcmp(point, ".") != 0) {
        const size_t n = strlen(s), size = strlen(point), before = (size_t)(dot - s);
        char *copy = g4_arena_alloc(m, n + size);
        if (copy == NULL) return 0;
        memcpy(copy, s, before);
        memcpy(copy + before, point, size);
        memcpy(copy + before + size, dot + 1, n - before); /* with the NUL */
        s = copy;
    }
    *out = strtod(s, NULL);
    return 1;
}

/* ---- Escapes ------------------------------------------------------------------------------------- */

int g4_hex_read(const char *s, int n_digits, uint32_t *out)
{
    uint32_t value = 0;
    for (int i = 0; i < n_digits; i++) {
        const char ch = s[i];
        if (g4_is_digit(ch))
            value = value << 4 | (uint32_t)(ch - '0');
        else if (ch >= 'a' && ch <= 'f')
            value = value << 4 | (uint32_t)(ch - 'a' + 10);
        else if (ch >= 'A' && ch <= 'F')
            value = value << 4 | (uint32_t)(ch - 'A' + 10);
        else
            return 0;
    }
    *out = value;
    return 1;
}

char g4_json_unescape(char letter)
{
    static const char letters[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *hit = letter != '\0' ? strchr(letters, letter) : NULL;
    return hit != NULL ? values[hit - letters] : '\0';
}

size_t g4_json_unescape_unicode(const char *s, size_t n, uint32_t *cp)
{
    uint32_t low;
    if (n < 6 || s[0] != '\\' || s[1] != 'u' || !g4_hex_read(s + 2, 4, cp)) return 0;
    if (*cp < 0xd800 || *cp > 0xdbff || n < 12 || s[6] != '\\' || s[7] != 'u' || !g4_hex_read(s + 8, 4, &low) ||
        low < 0xdc00 || low > 0xdfff)
        return 6;
    *cp = 0x10000 + ((*cp - 0xd800) << 10) + (low - 0xdc00);
    return 12;
}

void g4_json_quote(g4_buf *b, const char *s, size_t len)
{
    static const char values[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    g4_buf_add(b, "\"", 1);
    for (size_t i = 0; i < len;) {
        uint32_t cp = 0;
        const size_t size = g4_utf8_decode(s + i, len - i, &cp);
        const char *hit = size == 1 && cp != 0 ? strchr(values, (int)cp) : NULL;
        if (size == 0)
            g4_buf_add(b, "\xef\xbf\xbd", 3);
        else if (hit != NULL)
            g4_buf_fmt(b, "\\%c", letters[hit - values]);
        else if (cp < 0x20 || cp == 0x7f)
            g4_buf_fmt(b, "\\u%04x", (unsigned)cp);
        else
            g4_buf_add(b, s + i, size);
        i += size == 0 ? 1 : size;
    }
    g4_buf_add(b, "\"", 1);
}

/* The value of a tree as text again, without blanks. */
void g4_json_write(g4_buf *b, const g4_json *v)
{
    static const char *const words[] = { "null", "false", "true" };
    const int is_object = v->kind == G4_JSON_OBJECT;
    if (v->kind <= G4_JSON_TRUE) {
        g4_buf_str(b, words[v->kind]);
    } else if (v->kind == G4_JSON_NUMBER) {
        g4_buf_add(b, v->text, v->text_len);
    } else if (v->kind == G4_JSON_STRING) {
        g4_json_quote(b, v->text, v->text_len);
    } else {
        g4_buf_str(b, is_object ? "{" : "[");
        for (const g4_json *c = v->child; c != NULL; c = c->next) {
            if (c != v->child) g4_buf_str(b, ",");
            if (is_object) g4_json_quote(b, c->key, c->key_len);
            if (is_object) g4_buf_str(b, ":");
            g4_json_write(b, c);
        }
        g4_buf_str(b, is_object ? "}" : "]");
    }
}

/* ---- The parser ---------------------------------------------------------------------------------- */

typedef struct {
    g4_arena *arena;
    const char *text;
    size_t len, pos;
    g4_asker asker;
    g4_error *err;
} g4_json_parser;

void g4_text_place(const char *s, size_t n, size_t pos, size_t *line, size_t *column, g4_halt *halt)
{
    *line = *column = 1;
    for (size_t i = 0; i < pos && i < n; i++) {
        if (i % G4_COPY_PIECE == 0 && g4_halted(halt)) return;
        if (s[i] == '\n') {
            ++*line;
            *column = 1;
        } else if (!g4_utf8_continues(s[i])) {
            ++*column;
        }
    }
}

/* An error at a byte of the text, with line and column. */
static g4_status g4_json_fail(g4_json_parser *p, size_t offset, const char *what)
{
    size_t line, column;
    g4_text_place(p->text, p->len, offset, &line, &column, p->asker.halt);
    if (g4_halted(p->asker.halt)) return g4_halt_check(p->asker.halt, p->err);
    return g4_fail(p->err, G4_ERR_FORMAT, "JSON, line %zu column %zu: %s", line, column, what);
}

/* In pieces, since there may be many. Halted, it ends early: what fails next then says so. */
static void g4_json_skip_blanks(g4_json_parser *p)
{
    const size_t piece = 1 << 20;
    for (size_t end = p->pos; p->pos == end && end < p->len && !p->asker.ended;) {
        end = p->len - p->pos < piece ? p->len : p->pos + piece;
        p->pos = g4_skip_blanks(p->text, end, p->pos);
        if (p->pos == end) p->asker.ended = g4_halted(p->asker.halt);
    }
}

/* Is this the character that comes next? */
static int g4_json_next_is(const g4_json_parser *p, char ch) { return p->pos < p->len && p->text[p->pos] == ch; }

/* One escape, whose backslash is at pos, of a string that closes at `end`: up to 4 bytes to out, their number to *n. */
static g4_status g4_json_escape(g4_json_parser *p, size_t end, char *out, size_t *n)
{
    const char letter = p->text[p->pos + 1], value = g4_json_unescape(letter);
    if (value != '\0') {
        *out = value;
        *n = 1;
        p->pos += 2;
        return G4_OK;
    }
    uint32_t cp;
    if (letter != 'u') return g4_json_fail(p, p->pos, "unknown escape in a string");
    const size_t used = g4_json_unescape_unicode(p->text + p->pos, end - p->pos, &cp);
    if (used == 0) return g4_json_fail(p, p->pos, "\\u needs four hexadecimal digits");
    if (cp >= 0xd800 && cp <= 0xdfff) cp = 0xfffd;
    *n = g4_utf8_encode(cp, out);
    p->pos += used;
    return G4_OK;
}

/* A string whose opening quote is at pos; *out is NUL-terminated in the arena. */
static g4_status g4_json_string(g4_json_parser *p, const char **out, size_t *out_len)
{
    const size_t start = p->pos++;
    size_t end = p->pos, len = 0;
    while (end < p->len && p->text[end] != '"') end += p->text[end] == '\\' ? 2 : 1;
    if (end >= p->len) return g4_json_fail(p, start, "this string has no closing quote");
    char *s = g4_arena_alloc(p->arena, end - p->pos + 1); /* an escape never grows */
    if (s == NULL) return g4_fail(p->err, G4_ERR_MEMORY, "JSON: no memory for a string of %zu bytes", end - p->pos);
    while (p->pos < end) {
        size_t n = 0;
        if (g4_ask(&p->asker)) return g4_halt_check(p->asker.halt, p->err);
        if (p->text[p->pos] == '\\') {
            const g4_status st = g4_json_escape(p, end, s + len, &n);
            if (st != G4_OK) return st;
        } else {
            uint32_t cp;
            n = g4_utf8_decode(p->text + p->pos, end - p->pos, &cp);
            if (n == 0) return g4_json_fail(p, p->pos, "malformed UTF-8");
            if (cp < 0x20)
                return g4_json_fail(p, p->pos, "a control character in a string must be written as an escape");
            memcpy(s + len, p->text + p->pos, n);
            p->pos += n;
        }
        len += n;
    }
    p->pos = end + 1;
    s[len] = '\0';
    *out = s;
    *out_len = len;
    return G4_OK;
}

static g4_status g4_json_number(g4_json_parser *p, g4_json *node)
{
    const char *wrong;
    const size_t n = g4_json_scan_number(p->text + p->pos, p->len - p->pos, &wrong);
    if (wrong != NULL) return g4_json_fail(p, p->pos + n, wrong);
    char *s = g4_arena_alloc(p->arena, n + 1);
    if (s == NULL) return g4_fail(p->err, G4_ERR_MEMORY, "JSON: no memory for a number of %zu bytes", n);
    memcpy(s, p->text + p->pos, n);
    s[n] = '\0';
    p->pos += n;
    node->kind = G4_JSON_NUMBER;
    node->text = s;
    node->text_len = n;
    if (!g4_json_double(p->arena, s, &node->number))
        return g4_fail(p->err, G4_ERR_MEMORY, "JSON: no memory for a number");
    return G4_OK;
}

typedef struct {
    g4_json *node;
    size_t order; /* its place in the object */
} g4_json_member;

static int g4_json_compare_keys(const g4_json *a, const g4_json *b)
{
    return g4_bytes_compare(a->key, a->key_len, b->key, b->key_len);
}

static int g4_json_compare_members(const void *pa, const void *pb)
{
    const g4_json_member *a = pa, *b = pb;
    const int c = g4_json_compare_keys(a->node, b->node);
    return c != 0 ? c : (a->order > b->order) - (a->order < b->order);
}

/* Of members with one name, the first place gets the last value and the others go. Sorted, so that hostile objects cost
 * n log n. */
static g4_status g4_json_unique(g4_json_parser *p, g4_json *object, size_t n)
{
    if (n < 2) return G4_OK;
    g4_json_member *m = g4_alloc(p->arena->a, n, sizeof *m);
    if (m == NULL) return g4_fail(p->err, G4_ERR_MEMORY, "JSON: no memory for an object of %zu members", n);
    size_t i = 0;
    for (g4_json *c = object->child; c != NULL; c = c->next, i++) m[i] = (g4_json_member) { c, i };
    if (!g4_sort(p->arena->a, m, n, sizeof *m, g4_json_compare_members, p->asker.halt)) {
        g4_free(p->arena->a, m);
        return g4_fail_short(p->asker.halt, p->err, "JSON: no memory for an object of %zu members", n);
    }
    for (i = 0; i < n;) {
        size_t j = i + 1;
        while (j < n && g4_json_compare_keys(m[i].node, m[j].node) == 0) j++;
        if (j > i + 1) {
            g4_json *first = m[i].node, *next = first->next;
            const char *key = first->key;
            *first = *m[j - 1].node;
            first->key = key;
            first->next = next;
            for (size_t k = i + 1; k < j; k++) m[k].node->key = NULL; /* marks a member that goes */
        }
        i = j;
    }
    g4_free(p->arena->a, m);
    for (g4_json *c = object->child; c != NULL; c = c->next) /* the first member always stays */
        while (c->next != NULL && c->next->key == NULL) c->next = c->next->next;
    return G4_OK;
}

static g4_status g4_json_value(g4_json_parser *p, g4_json *node, int depth);

/* "name": of a member. */
static g4_status g4_json_key(g4_json_parser *p, g4_json *member)
{
    if (!g4_json_next_is(p, '"')) return g4_json_fail(p, p->pos, "expected a name in double quotes");
    const g4_status st = g4_json_string(p, &member->key, &member->key_len);
    if (st != G4_OK) return st;
    g4_json_skip_blanks(p);
    if (!g4_json_next_is(p, ':')) return g4_json_fail(p, p->pos, "expected ':' after the name");
    p->pos++;
    return G4_OK;
}

/* Members of an object or elements of an array, up to its closing bracket. pos stands behind the opening one. */
static g4_status g4_json_children(g4_json_parser *p, g4_json *node, int depth)
{
    const int is_object = node->kind == G4_JSON_OBJECT;
    const char close = is_object ? '}' : ']';
    if (depth >= G4_JSON_MAX_DEPTH) {
        char what[48];
        snprintf(what, sizeof what, "nested more than %d deep", G4_JSON_MAX_DEPTH);
        return g4_json_fail(p, p->pos - 1, what);
    }
    g4_json **tail = &node->child;
    size_t n = 0;
    g4_json_skip_blanks(p);
    if (g4_json_next_is(p, close)) {
        p->pos++;
        return G4_OK;
    }
    for (;;) {
        g4_json *child = g4_arena_alloc(p->arena, sizeof *child);
        if (child == NULL) return g4_fail(p->err, G4_ERR_MEMORY, "JSON: no memory for a value");
        g4_json_skip_blanks(p);
        g4_status st = is_object ? g4_json_key(p, child) : G4_OK;
        if (st == G4_OK) st = g4_json_value(p, child, depth + 1);
        if (st != G4_OK) return st;
        *tail = child;
        tail = &child->next;
        n++;
        g4_json_skip_blanks(p);
        if (!g4_json_next_is(p, ',')) break;
        p->pos++;
    }
    if (!g4_json_next_is(p, close))
        return g4_json_fail(p, p->pos, is_object ? "expected ',' or '}'" : "expected ',' or ']'");
    p->pos++;
    return is_object ? g4_json_unique(p, node, n) : G4_OK;
}

/* null, false or true. */
static g4_status g4_json_word(g4_json_parser *p, g4_json *node)
{
    static const char *const words[] = { "null", "false", "true" };
    static const g4_json_kind kinds[] = { G4_JSON_NULL, G4_JSON_FALSE, G4_JSON_TRUE };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        const size_t n = strlen(words[i]);
        if (p->len - p->pos < n || memcmp(p->text + p->pos, words[i], n) != 0) continue;
        node->kind = kinds[i];
        p->pos += n;
        return G4_OK;
    }
    return g4_json_fail(p, p->pos, "expected a value");
}

static g4_status g4_json_value(g4_json_parser *p, g4_json *node, int depth)
{
    g4_json_skip_blanks(p);
    if (g4_ask(&p->asker)) return g4_halt_check(p->asker.halt, p->err);
    if (p->pos >= p->len) return g4_json_fail(p, p->pos, "expected a value, found the end");
    const char ch = p->text[p->pos];
    if (ch == '{' || ch == '[') {
        node->kind = ch == '{' ? G4_JSON_OBJECT : G4_JSON_ARRAY;
        p->pos++;
        return g4_json_children(p, node, depth);
    }
    if (ch == '"') {
        node->kind = G4_JSON_STRING;
        return g4_json_string(p, &node->text, &node->text_len);
    }
    return ch == '-' || g4_is_digit(ch) ? g4_json_number(p, node) : g4_json_word(p, node);
}

/* The whole text as one document whose root node is there already. */
static g4_status g4_json_document(g4_json *root, g4_arena *m, const char *text, size_t len, g4_halt *halt,
                                  g4_error *err)
{
    g4_json_parser p = { .arena = m, .text = text, .len = len, .asker = { .halt = halt }, .err = err };
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) p.pos = 3;
    if (len >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0))
        return g4_fail(err, G4_ERR_FORMAT, "JSON: this is UTF-16, and must be UTF-8");
    const g4_status st = g4_json_value(&p, root, 0);
    if (st != G4_OK) return st;
    g4_json_skip_blanks(&p);
    return p.pos < len ? g4_json_fail(&p, p.pos, "something follows the end of the document") : G4_OK;
}

g4_status g4_json_parse_in(g4_json **root, g4_arena *m, const char *text, size_t len, const char *what, g4_halt *halt,
                           g4_error *err)
{
    g4_error why = { 0 };
    g4_json *node = g4_arena_alloc(m, sizeof *node);
    const g4_status st = node != NULL ? g4_json_document(node, m, text, len, halt, &why)
                                      : g4_fail(&why, G4_ERR_MEMORY, "JSON: no memory for a document");
    *root = st == G4_OK ? node : NULL;
    if (st == G4_OK) return st;
    if (st == G4_ERR_CANCELED) return g4_fail(err, st, "%s", why.message);
    return g4_fail(err, st, "%s%s%s", what != NULL ? what : "", what != NULL ? ": " : "", why.message);
}

typedef struct {
    g4_json root; /* first, so that the root is the document */
    g4_arena arena;
} g4_json_doc;

g4_status g4_json_parse(g4_json **root, const g4_allocator *a, const char *text, size_t len, g4_error *err)
{
    *root = NULL;
    g4_json_doc *doc = g4_alloc(a, 1, sizeof *doc);
    if (doc == NULL) return g4_fail(err, G4_ERR_MEMORY, "JSON: no memory for a document");
    doc->arena.a = a;
    const g4_status st = g4_json_document(&doc->root, &doc->arena, text, len, NULL, err);
    if (st != G4_OK)
        g4_json_free(a, &doc->root);
    else
        *root = &doc->root;
    return st;
}

void g4_json_free(const g4_allocator *a, g4_json *root)
{
    if (root == NULL) return;
    g4_json_doc *doc = (g4_json_doc *)root;
    g4_arena_free(&doc->arena);
    g4_free(a, doc);
}

/* ---- Looking into trees -------------------------------------------------------------------------- */

g4_json *g4_json_find(const g4_json *object, const char *key)
{
    if (object == NULL || object->kind != G4_JSON_OBJECT) return NULL;
    const size_t n = strlen(key);
    for (g4_json *c = object->child; c != NULL; c = c->next)
        if (c->key_len == n && memcmp(c->key, key, n) == 0) return c;
    return NULL;
}

const g4_json *g4_json_get(const g4_json *object, const char *key) { return g4_json_find(object, key); }

void g4_json_set(g4_json *v, const g4_json *value)
{
    const g4_json old = *v;
    *v = *value;
    v->key = old.key;
    v->key_len = old.key_len;
    v->next = old.next;
}

const char *g4_json_kind_name(const g4_json *v)
{
    static const char *const names[] = { "null", "false", "true", "a number", "text", "a list", "an object" };
    return v == NULL ? "nothing" : names[v->kind];
}

const g4_json *g4_json_given(const g4_json *object, const char *key)
{
    const g4_json *v = g4_json_get(object, key);
    return g4_json_is(v, G4_JSON_NULL) ? NULL : v;
}

int g4_json_is_text(const g4_json *v, const char *s)
{
    return g4_json_is(v, G4_JSON_STRING) && v->text_len == strlen(s) && memcmp(v->text, s, v->text_len) == 0;
}

int g4_json_key_is(const g4_json *member, const char *name)
{
    return member->key_len == strlen(name) && memcmp(member->key, name, member->key_len) == 0;
}

int g4_json_key_in(const g4_json *member, const char *const *names)
{
    while (*names != NULL && !g4_json_key_is(member, *names)) names++;
    return *names != NULL;
}

static size_t g4_json_count(const g4_json *v)
{
    size_t n = 0;
    for (const g4_json *c = v->child; c != NULL; c = c->next) n++;
    return n;
}

int g4_json_equal(const g4_json *a, const g4_json *b)
{
    const int a_none = a == NULL || a->kind == G4_JSON_NULL, b_none = b == NULL || b->kind == G4_JSON_NULL;
    if (a_none || b_none) return a_none && b_none;
    if (a->kind != b->kind) return 0;
    if (a->kind == G4_JSON_NUMBER) return a->number == b->number;
    if (a->kind == G4_JSON_STRING) return a->text_len == b->text_len && memcmp(a->text, b->text, a->text_len) == 0;
    if (g4_json_count(a) != g4_json_count(b)) return 0;
    const g4_json *d = b->child;
    for (const g4_json *c = a->child; c != NULL; c = c->next, d = d->next)
        if (!g4_json_equal(c, a->kind == G4_JSON_OBJECT ? g4_json_get(b, c->key) : d)) return 0;
    return 1;
}
