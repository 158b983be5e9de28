/* buffer.c - text that grows: what is read, said and written passes through it. */
#include "cli.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Room for n more bytes and a NUL; 0 when there is none, which stays so. */
static int buffer_reserve(buffer *b, size_t n)
{
    if (b->failed) return 0;
    if (n < b->cap - b->len) return 1; /* an empty one has neither room nor length */
    size_t cap = b->cap < 64 ? 64 : b->cap;
    while (cap - b->len <= n && cap <= SIZE_MAX / 2) cap *= 2;
    char *grown = cap - b->len > n ? realloc(b->data, cap) : NULL;
    b->failed = grown == NULL;
    if (b->failed) return 0;
    b->data = grown;
    b->cap = cap;
    return 1;
}

void buffer_add(buffer *b, const void *data, size_t n)
{
    if (!buffer_reserve(b, n)) return;
    if (n > 0) memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void buffer_str(buffer *b, const char *s) { buffer_add(b, s, strlen(s)); }

void buffer_fmt(buffer *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n < 0)
        b->failed = 1;
    else if (buffer_reserve(b, (size_t)n))
        b->len += (size_t)vsnprintf(b->data + b->len, (size_t)n + 1, format, again);
    va_end(again);
    va_end(args);
}

void buffer_free(buffer *b)
{
    free(b->data);
    *b = (buffer) { 0 };
}

/* Bytes of the well-formed UTF-8 character at the start of text, of which n bytes are left; 0: there is none. */
static size_t whole_character(const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t bytes = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF5 ? 4 : 0;
    if (bytes > n) return 0;
    for (size_t i = 1; i < bytes; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
    }
    int is_overlong = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xF0 && s[1] < 0x90);
    int is_surrogate = s[0] == 0xED && s[1] >= 0xA0, is_beyond = s[0] == 0xF4 && s[1] >= 0x90;
    return bytes > 2 && (is_overlong || is_surrogate || is_beyond) ? 0 : bytes;
}

void buffer_quote(buffer *b, const char *text, size_t len)
{
    static const char values[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    buffer_str(b, "\"");
    for (size_t i = 0; i < len;) {
        size_t bytes = whole_character(text + i, len - i);
        unsigned char c = (unsigned char)text[i];
        const char *escaped = c != '\0' ? strchr(values, c) : NULL;
        if (bytes == 0)
            buffer_str(b, "\xEF\xBF\xBD"); /* the replacement character for a byte that belongs to none */
        else if (escaped != NULL)
            buffer_fmt(b, "\\%c", letters[escaped - values]);
        else if (c < 0x20 || c == 0x7F)
            buffer_fmt(b, "\\u%04x", (unsigned)c);
        else
            buffer_add(b, text + i, bytes);
        i += bytes == 0 ? 1 : bytes;
    }
    buffer_str(b, "\"");
}
