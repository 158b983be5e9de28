/* multipart.c - the parts of a multipart/form-data body that lies in memory. Pure, and strict: what stands between
 * delimiters is taken as it is, everything else has one form. */
#include "serve.h"

#include <string.h>

static int is_boundary_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("'()+_,-./:=? ", c) != NULL);
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }

/* Does text, of n bytes, begin with the word, whatever the case of its letters? */
static int begins(const char *text, size_t n, const char *word)
{
    const size_t len = strlen(word);
    if (n < len) return 0;
    for (size_t i = 0; i < len; i++) {
        if (lower(text[i]) != word[i]) return 0;
    }
    return 1;
}

/* The value of a parameter behind its "=", a token or quoted, into out; 0: it is neither, or too long. */
static int read_value(const char *text, size_t n, char *out, size_t size)
{
    const int is_quoted = n > 0 && text[0] == '"';
    size_t at = (size_t)is_quoted, len = 0;
    for (; at < n; at++) {
        char c = text[at];
        if (is_quoted ? c == '"' : (c == ';' || c == ' ' || c == '\t' || c == '\r')) break;
        if (is_quoted && c == '\\' && at + 1 < n) c = text[++at];
        if ((unsigned char)c < ' ' || len + 1 >= size) return 0;
        out[len++] = c;
    }
    out[len] = '\0';
    return !is_quoted || at < n;
}

/* The parameter of that name, "; name=value" of a field, into out, which is empty where there is none; 0: malformed. */
static int read_parameter(const char *field, size_t n, const char *name, char *out, size_t size)
{
    const size_t len = strlen(name);
    int is_quoted = 0;
    out[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        if (field[i] == '\\' && is_quoted)
            i++;
        else if (field[i] == '"')
            is_quoted = !is_quoted;
        if (is_quoted || i >= n || field[i] != ';') continue;
        size_t at = i + 1;
        while (at < n && (field[at] == ' ' || field[at] == '\t')) at++;
        if (begins(field + at, n - at, name) && at + len < n && field[at + len] == '=')
            return read_value(field + at + len + 1, n - at - len - 1, out, size);
    }
    return 1;
}

int multipart_open(multipart *m, const char *content_type, const char *data, size_t len)
{
    char boundary[MULTIPART_BOUNDARY + 1];
    if (content_type == NULL || !begins(content_type, strlen(content_type), "multipart/form-data")) return 0;
    if (!read_parameter(content_type, strlen(content_type), "boundary", boundary, sizeof boundary)) return 0;
    const size_t n = strlen(boundary);
    for (size_t i = 0; i < n; i++) {
        if (!is_boundary_char(boundary[i])) return 0;
    }
    if (n == 0 || boundary[n - 1] == ' ') return 0;
    *m = (multipart) { .data = data, .len = len };
    snprintf(m->delimiter, sizeof m->delimiter, "\r\n--%s", boundary);
    return 1;
}

/* Where the next delimiter stands from `from` on, with a line end or the last dashes behind it; len: nowhere. *behind
 * gets the place behind it, *is_last whether it was the last. */
static size_t find_delimiter(const multipart *m, size_t from, size_t *behind, int *is_last)
{
    const size_t n = strlen(m->delimiter);
    for (size_t at = from; at + n + 2 <= m->len; at++) {
        const char *found = memchr(m->data + at, '\r', m->len - n - 1 - at);
        if (found == NULL) break;
        at = (size_t)(found - m->data);
        if (memcmp(found, m->delimiter, n) != 0) continue;
        size_t end = at + n;
        *is_last = memcmp(m->data + end, "--", 2) == 0;
        while (!*is_last && end < m->len && (m->data[end] == ' ' || m->data[end] == '\t')) end++;
        if (!*is_last && (end + 2 > m->len || memcmp(m->data + end, "\r\n", 2) != 0)) continue;
        *behind = end + 2;
        return at;
    }
    return m->len;
}

/* The first delimiter, which may stand at the very beginning, without a line end before it. */
static int find_first(multipart *m)
{
    const size_t n = strlen(m->delimiter) - 2;
    int is_last;
    size_t behind;
    m->begun = 1;
    if (m->len >= n + 2 && memcmp(m->data, m->delimiter + 2, n) == 0 && memcmp(m->data + n, "\r\n", 2) == 0) {
        m->at = n + 2;
        return 1;
    }
    if (find_delimiter(m, 0, &behind, &is_last) == m->len || is_last) return 0;
    m->at = behind;
    return 1;
}

/* The lines above a part: its name. */
static int read_lines(multipart *m, multipart_part *out)
{
    static const char wanted[] = "content-disposition:";
    const size_t first = m->at;
    while (m->at + 2 <= m->len && m->at - first < HTTP_MAX_HEAD) {
        const char *line = m->data + m->at, *end = memchr(line, '\n', m->len - m->at);
        if (end == NULL || end == line || end[-1] != '\r') return 0;
        const size_t n = (size_t)(end - line) - 1;
        m->at += n + 2;
        if (n == 0) return out->name[0] != '\0';
        if (begins(line, n, wanted) && (!read_parameter(line, n, "name", out->name, sizeof out->name) ||
                                        !read_parameter(line, n, "filename", out->file, sizeof out->file)))
            return 0;
    }
    return 0;
}

int multipart_next(multipart *m, multipart_part *out)
{
    size_t behind;
    int is_last;
    *out = (multipart_part) { .data = NULL };
    if (m->ended) return 0;
    if (!m->begun && !find_first(m)) return -1;
    if (!read_lines(m, out)) return -1;
    const size_t from = m->at >= 2 ? m->at - 2 : 0; /* of a part without bytes the line end is that of its lines */
    const size_t end = find_delimiter(m, from, &behind, &is_last);
    if (end == m->len) return -1;
    out->data = m->data + m->at;
    out->len = end > m->at ? end - m->at : 0;
    m->at = behind;
    m->ended = is_last;
    return 1;
}
