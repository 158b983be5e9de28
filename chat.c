/* chat.c - JSON, messages to prompts, replies to parts.
 *
 *  1  JSON
 */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "gemma4.h"
#include "gemma4_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- 1. JSON -------------------------------------------------------------------------------------
 *
 * In: one document (RFC 8259; a byte order mark in front is skipped). Out: a tree in an arena. Stricter than needed nowhere: what
 * is refused cannot be turned into valid UTF-8 text (malformed bytes, lone surrogates) or is not JSON. Of members with the same name
 * the place of the first and the value of the last is kept, as Python's json does. */

#define G4_JSON_MAX_DEPTH 512
#define G4_ARENA_CHUNK 4096

typedef struct g4_chunk g4_chunk;
struct g4_chunk {
    g4_chunk *next;
    size_t used, size;            /* bytes of data[] */
    union { g4_chunk *p; double d; uint64_t u; } data[1]; /* aligned for every node */
};

typedef struct {
    const g4_allocator *a;
    g4_chunk *chunks;             /* the newest first; only that one is filled */
} g4_arena;

typedef struct {
    g4_json root;                 /* first, so that the root is the document */
    g4_chunk *chunks;
} g4_json_doc;

static void *g4_arena_alloc(g4_arena *m, size_t n)
{
    if (n > SIZE_MAX / 2) return NULL;
    n = g4_round_up(n, sizeof(m->chunks->data[0]));
    if (m->chunks == NULL || n > m->chunks->size - m->chunks->used) {
        size_t size = n > G4_ARENA_CHUNK ? n : G4_ARENA_CHUNK, total;
        if (g4_add_overflows(size, sizeof(g4_chunk), &total)) return NULL;
        g4_chunk *c = g4_alloc(m->a, total, 1);
        if (c == NULL) return NULL;
        c->size = size;
        c->next = m->chunks;
        m->chunks = c;
    }
    void *p = (char *)m->chunks->data + m->chunks->used;
    m->chunks->used += n;
    return p;
}

static void g4_arena_free(const g4_allocator *a, g4_chunk *c)
{
    while (c != NULL) {
        g4_chunk *next = c->next;
        g4_free(a, c);
        c = next;
    }
}

/* Length of the well-formed UTF-8 sequence at s (n bytes left), 0 if there is none; *cp gets the code point. */
static size_t g4_utf8_char(const char *s, size_t n, uint32_t *cp)
{
    const unsigned char *u = (const unsigned char *)s;
    if (n == 0) return 0;
    if (u[0] < 0x80) {
        *cp = u[0];
        return 1;
    }
    size_t len = u[0] >= 0xf0 ? 4 : u[0] >= 0xe0 ? 3 : 2;
    if (u[0] < 0xc2 || u[0] > 0xf4 || n < len) return 0;
    uint32_t c = u[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((u[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (u[i] & 0x3fu);
    }
    if ((len == 3 && c < 0x800) || (len == 4 && c < 0x10000) || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) return 0;
    *cp = c;
    return len;
}

static size_t g4_utf8_put(uint32_t cp, char *out) /* at most 4 bytes */
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    static const unsigned char lead[5] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    for (size_t i = len - 1; i > 0; i--, cp >>= 6) out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)(lead[len] | cp);
    return len;
}

/* The host program may have set a locale with a decimal comma: find out what strtod and snprintf use here. */
static void g4_decimal_point(char out[8])
{
    char s[16];
    snprintf(s, sizeof s, "%.1f", 0.5);
    size_t n = strlen(s);
    size_t k = n > 2 ? n - 2 : 0; /* "0" point "5" */
    if (k > 7) k = 7;
    memcpy(out, s + 1, k);
    out[k] = '\0';
}

/* The double nearest to the NUL-terminated JSON number s; beyond the range it is infinite. Returns 0 when out of memory. */
static int g4_parse_double(g4_arena *m, const char *s, double *out)
{
    char point[8];
    const char *dot = strchr(s, '.');
    g4_decimal_point(point);
    if (dot != NULL && strcmp(point, ".") != 0) {
        size_t n = strlen(s), k = strlen(point), at = (size_t)(dot - s);
        char *t = g4_arena_alloc(m, n + k);
        if (t == NULL) return 0;
        memcpy(t, s, at);
        memcpy(t + at, point, k);
        memcpy(t + at + k, dot + 1, n - at); /* with the NUL */
        s = t;
    }
    *out = strtod(s, NULL);
    return 1;
}

typedef struct {
    g4_arena arena;
    const char *text;
    size_t len, pos;
    g4_error *err;
} g4_json_parser;

/* Error at byte `at`, with line and column (in characters, from 1). */
static g4_status g4_json_fail(g4_json_parser *p, size_t at, const char *what)
{
    size_t line = 1, column = 1;
    for (size_t i = 0; i < at && i < p->len; i++) {
        if (p->text[i] == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)p->text[i] & 0xc0) != 0x80) {
            column++;
        }
    }
    return g4_fail(p->err, G4_ERR_FORMAT, "JSON, line %zu column %zu: %s", line, column, what);
}

static void g4_json_space(g4_json_parser *p)
{
    while (p->pos < p->len && (p->text[p->pos] == ' ' || p->text[p->pos] == '\t' || p->text[p->pos] == '\n' || p->text[p->pos] == '\r'))
        p->pos++;
}

static int g4_hex4(const char *s, uint32_t *out)
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        char c = s[i];
        uint32_t d = c >= '0' && c <= '9' ? (uint32_t)(c - '0') : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10) : 16u;
        if (d > 15) return 0;
        v = v << 4 | d;
    }
    *out = v;
    return 1;
}

/* A string whose opening quote is at pos; *out is NUL-terminated in the arena. */
static g4_status g4_json_string(g4_json_parser *p, const char **out, size_t *out_len)
{
    size_t start = p->pos++, end = p->pos;
    while (end < p->len && p->text[end] != '"') end += p->text[end] == '\\' ? 2 : 1;
    if (end >= p->len) return g4_json_fail(p, start, "this string has no closing quote");
    char *s = g4_arena_alloc(&p->arena, end - p->pos + 1); /* an escape never grows */
    if (s == NULL) return g4_fail(p->err, G4_ERR_MEMORY, "JSON: no memory for a string of %zu bytes", end - p->pos);
    size_t n = 0;
    while (p->pos < end) {
        unsigned char c = (unsigned char)p->text[p->pos];
        if (c < 0x20) return g4_json_fail(p, p->pos, "a control character in a string must be written as an escape");
        if (c != '\\') {
            uint32_t cp;
            size_t k = g4_utf8_char(p->text + p->pos, end - p->pos, &cp);
            if (k == 0) return g4_json_fail(p, p->pos, "malformed UTF-8");
            memcpy(s + n, p->text + p->pos, k);
            n += k;
            p->pos += k;
            continue;
        }
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        char e = p->text[p->pos + 1];
        const char *hit = e != '\0' ? strchr(from, e) : NULL;
        if (hit != NULL) {
            s[n++] = to[hit - from];
            p->pos += 2;
            continue;
        }
        uint32_t hi, lo;
        if (e != 'u') return g4_json_fail(p, p->pos, "unknown escape in a string");
        if (end - p->pos < 6 || !g4_hex4(p->text + p->pos + 2, &hi)) return g4_json_fail(p, p->pos, "\\u needs four hexadecimal digits");
        size_t used = 6;
        if (hi >= 0xd800 && hi <= 0xdfff) {
            if (hi >= 0xdc00 || end - p->pos < 12 || p->text[p->pos + 6] != '\\' || p->text[p->pos + 7] != 'u' ||
                !g4_hex4(p->text + p->pos + 8, &lo) || lo < 0xdc00 || lo > 0xdfff)
                return g4_json_fail(p, p->pos, "half of a surrogate pair stands alone");
            hi = 0x10000 + ((hi - 0xd800) << 10) + (lo - 0xdc00);
            used = 12;
        }
        n += g4_utf8_put(hi, s + n);
        p->pos += used;
    }
    p->pos = end + 1;
    s[n] = '\0';
    *out = s;
    *out_len = n;
    return G4_OK;
}

static size_t g4_json_digits(g4_json_parser *p)
{
    size_t from = p->pos;
    while (p->pos < p->len && p->text[p->pos] >= '0' && p->text[p->pos] <= '9') p->pos++;
    return p->pos - from;
}

static g4_status g4_json_number(g4_json_parser *p, g4_json *node)
{
    size_t start = p->pos;
    if (p->text[p->pos] == '-') p->pos++;
    if (p->pos < p->len && p->text[p->pos] == '0') p->pos++;
    else if (g4_json_digits(p) == 0) return g4_json_fail(p, p->pos, "expected a digit");
    if (p->pos < p->len && p->text[p->pos] >= '0' && p->text[p->pos] <= '9')
        return g4_json_fail(p, start, "a number must not start with 0");
    if (p->pos < p->len && p->text[p->pos] == '.') {
        p->pos++;
        if (g4_json_digits(p) == 0) return g4_json_fail(p, p->pos, "expected a digit after the point");
    }
    if (p->pos < p->len && (p->text[p->pos] == 'e' || p->text[p->pos] == 'E')) {
        p->pos++;
        if (p->pos < p->len && (p->text[p->pos] == '+' || p->text[p->pos] == '-')) p->pos++;
        if (g4_json_digits(p) == 0) return g4_json_fail(p, p->pos, "expected a digit in the exponent");
    }
    size_t n = p->pos - start;
    char *s = g4_arena_alloc(&p->arena, n + 1);
    if (s == NULL) return g4_fail(p->err, G4_ERR_MEMORY, "JSON: no memory for a number of %zu bytes", n);
    memcpy(s, p->text + start, n);
    s[n] = '\0';
    node->kind = G4_JSON_NUMBER;
    node->text = s;
    node->text_len = n;
    if (!g4_parse_double(&p->arena, s, &node->number)) return g4_fail(p->err, G4_ERR_MEMORY, "JSON: no memory for a number");
    return G4_OK;
}

typedef struct { g4_json *node; size_t order; } g4_member;

static int g4_member_key_compare(const g4_json *a, const g4_json *b)
{
    int c = memcmp(a->key, b->key, a->key_len < b->key_len ? a->key_len : b->key_len);
    return c != 0 ? c : (a->key_len > b->key_len) - (a->key_len < b->key_len);
}

static int g4_member_compare(const void *pa, const void *pb)
{
    const g4_member *a = pa, *b = pb;
    int c = g4_member_key_compare(a->node, b->node);
    return c != 0 ? c : (a->order > b->order) - (a->order < b->order);
}

/* Of members with one name, the first place gets the last value and the others go. Sorted, so that hostile objects cost n log n. */
static g4_status g4_json_unique(g4_json_parser *p, g4_json *object, size_t n)
{
    if (n < 2) return G4_OK;
    g4_member *m = g4_alloc(p->arena.a, n, sizeof *m);
    if (m == NULL) return g4_fail(p->err, G4_ERR_MEMORY, "JSON: no memory for an object of %zu members", n);
    size_t i = 0;
    for (g4_json *c = object->child; c != NULL; c = c->next, i++) m[i] = (g4_member){ c, i };
    qsort(m, n, sizeof *m, g4_member_compare);
    int duplicates = 0;
    for (i = 0; i < n;) {
        size_t j = i + 1;
        while (j < n && g4_member_key_compare(m[i].node, m[j].node) == 0) j++;
        if (j > i + 1) {
            g4_json *first = m[i].node, *last = m[j - 1].node, *next = first->next;
            const char *key = first->key;
            *first = *last;
            first->key = key;
            first->next = next;
            for (size_t k = i + 1; k < j; k++) m[k].node->key = NULL; /* marks a member that goes */
            duplicates = 1;
        }
        i = j;
    }
    g4_free(p->arena.a, m);
    if (duplicates)
        for (g4_json *c = object->child; c != NULL; c = c->next) /* the first member always stays */
            while (c->next != NULL && c->next->key == NULL) c->next = c->next->next;
    return G4_OK;
}

static g4_status g4_json_value(g4_json_parser *p, g4_json *node, int depth);

/* Members of an object or elements of an array, up to its closing bracket. pos stands behind the opening one. */
static g4_status g4_json_children(g4_json_parser *p, g4_json *node, int depth)
{
    int is_object = node->kind == G4_JSON_OBJECT;
    char close = is_object ? '}' : ']';
    if (depth >= G4_JSON_MAX_DEPTH) return g4_json_fail(p, p->pos - 1, "nested more than 512 deep");
    g4_json **tail = &node->child;
    size_t n = 0;
    g4_json_space(p);
    if (p->pos < p->len && p->text[p->pos] == close) {
        p->pos++;
        return G4_OK;
    }
    for (;; n++) {
        g4_json *c = g4_arena_alloc(&p->arena, sizeof *c);
        if (c == NULL) return g4_fail(p->err, G4_ERR_MEMORY, "JSON: no memory for a value");
        memset(c, 0, sizeof *c);
        g4_json_space(p);
        g4_status st = G4_OK;
        if (is_object) {
            if (p->pos >= p->len || p->text[p->pos] != '"') return g4_json_fail(p, p->pos, "expected a name in double quotes");
            st = g4_json_string(p, &c->key, &c->key_len);
            if (st != G4_OK) return st;
            g4_json_space(p);
            if (p->pos >= p->len || p->text[p->pos] != ':') return g4_json_fail(p, p->pos, "expected ':' after the name");
            p->pos++;
        }
        st = g4_json_value(p, c, depth + 1);
        if (st != G4_OK) return st;
        *tail = c;
        tail = &c->next;
        g4_json_space(p);
        if (p->pos < p->len && p->text[p->pos] == ',') {
            p->pos++;
            continue;
        }
        if (p->pos < p->len && p->text[p->pos] == close) break;
        return g4_json_fail(p, p->pos, is_object ? "expected ',' or '}'" : "expected ',' or ']'");
    }
    p->pos++;
    return is_object ? g4_json_unique(p, node, n + 1) : G4_OK;
}

static g4_status g4_json_value(g4_json_parser *p, g4_json *node, int depth)
{
    g4_json_space(p);
    if (p->pos >= p->len) return g4_json_fail(p, p->pos, "expected a value, found the end");
    static const struct { const char *word; size_t n; g4_json_kind kind; } words[] = {
        { "null", 4, G4_JSON_NULL }, { "false", 5, G4_JSON_FALSE }, { "true", 4, G4_JSON_TRUE }
    };
    char c = p->text[p->pos];
    switch (c) {
    case '{':
    case '[':
        node->kind = c == '{' ? G4_JSON_OBJECT : G4_JSON_ARRAY;
        p->pos++;
        return g4_json_children(p, node, depth);
    case '"':
        node->kind = G4_JSON_STRING;
        return g4_json_string(p, &node->text, &node->text_len);
    default:
        if (c == '-' || (c >= '0' && c <= '9')) return g4_json_number(p, node);
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
            if (p->len - p->pos >= words[i].n && memcmp(p->text + p->pos, words[i].word, words[i].n) == 0) {
                node->kind = words[i].kind;
                p->pos += words[i].n;
                return G4_OK;
            }
        return g4_json_fail(p, p->pos, "expected a value");
    }
}

g4_status g4_json_parse(g4_json **root, const g4_allocator *a, const char *text, size_t len, g4_error *err)
{
    *root = NULL;
    g4_json_parser p = { .arena = { .a = a }, .text = text, .len = len, .err = err };
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) p.pos = 3;
    g4_json_doc *doc = g4_alloc(a, 1, sizeof *doc);
    if (doc == NULL) return g4_fail(err, G4_ERR_MEMORY, "JSON: no memory for a document");
    g4_status st = g4_json_value(&p, &doc->root, 0);
    if (st == G4_OK) {
        g4_json_space(&p);
        if (p.pos < len) st = g4_json_fail(&p, p.pos, "something follows the end of the document");
    }
    doc->chunks = p.arena.chunks;
    if (st != G4_OK) g4_json_free(a, &doc->root);
    else *root = &doc->root;
    return st;
}

void g4_json_free(const g4_allocator *a, g4_json *root)
{
    if (root == NULL) return;
    g4_json_doc *doc = (g4_json_doc *)root;
    g4_arena_free(a, doc->chunks);
    g4_free(a, doc);
}

const g4_json *g4_json_get(const g4_json *object, const char *key)
{
    if (object == NULL || object->kind != G4_JSON_OBJECT) return NULL;
    size_t n = strlen(key);
    for (const g4_json *c = object->child; c != NULL; c = c->next)
        if (c->key_len == n && memcmp(c->key, key, n) == 0) return c;
    return NULL;
}

void g4_json_quote(g4_buf *b, const char *s, size_t len)
{
    g4_buf_add(b, "\"", 1);
    for (size_t i = 0; i < len;) {
        uint32_t cp = 0;
        size_t k = g4_utf8_char(s + i, len - i, &cp);
        static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
        const char *hit = k == 1 && cp != 0 ? strchr(from, (int)cp) : NULL;
        if (k == 0) g4_buf_add(b, "\xef\xbf\xbd", 3);
        else if (hit != NULL) g4_buf_fmt(b, "\\%c", to[hit - from]);
        else if (cp < 0x20 || cp == 0x7f) g4_buf_fmt(b, "\\u%04x", (unsigned)cp);
        else g4_buf_add(b, s + i, k);
        i += k == 0 ? 1 : k;
    }
    g4_buf_add(b, "\"", 1);
}
