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

int buffer_write(void *b, const void *data, size_t size)
{
    buffer_add(b, data, size);
    return ((buffer *)b)->failed;
}

void buffer_str(buffer *b, const char *s) { buffer_add(b, s, strlen(s)); }

void buffer_vfmt(buffer *b, const char *format, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n < 0)
        b->failed = 1;
    else if (buffer_reserve(b, (size_t)n))
        b->len += (size_t)vsnprintf(b->data + b->len, (size_t)n + 1, format, again);
    va_end(again);
}

void buffer_fmt(buffer *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    buffer_vfmt(b, format, args);
    va_end(args);
}

void buffer_free(buffer *b)
{
    free(b->data);
    *b = (buffer) { 0 };
}

/* ---- Characters ----------------------------------------------------------------------------------- */

size_t whole_character(const char *text, size_t n, uint32_t *code)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t bytes = s[0] < 0x80 ? 1 : s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF5 ? 4 : 0;
    if (bytes > n) return 0;
    *code = bytes > 1 ? s[0] & (0x7Fu >> bytes) : s[0];
    for (size_t i = 1; i < bytes; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
        *code = *code << 6 | (s[i] & 0x3Fu);
    }
    int is_overlong = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xF0 && s[1] < 0x90);
    int is_surrogate = s[0] == 0xED && s[1] >= 0xA0, is_beyond = s[0] == 0xF4 && s[1] >= 0x90;
    return bytes > 2 && (is_overlong || is_surrogate || is_beyond) ? 0 : bytes;
}

/* The mildest use from which on a character is kept away. What joins and shapes letters or emoji belongs to prose, and
 * in a name only hides what stands there. */
static const struct {
    uint32_t first, last;
    text_use from;
} harmful_ranges[] = {
    { 0x0000, 0x0008, USE_TEXT },      { 0x0009, 0x000A, USE_NAME }, /* tab, newline */
    { 0x000B, 0x001F, USE_TEXT },      { 0x007F, 0x009F, USE_TEXT },    { 0x00AD, 0x00AD, USE_MESSAGE },
    { 0x034F, 0x034F, USE_MESSAGE },   { 0x061C, 0x061C, USE_MESSAGE }, { 0x115F, 0x1160, USE_MESSAGE },
    { 0x17B4, 0x17B5, USE_MESSAGE },   { 0x180B, 0x180F, USE_MESSAGE }, { 0x200B, 0x200B, USE_MESSAGE },
    { 0x200C, 0x200D, USE_NAME },                                                                     /* joiners */
    { 0x200E, 0x200F, USE_MESSAGE },   { 0x2028, 0x2029, USE_MESSAGE }, { 0x202A, 0x202E, USE_TEXT }, /* overrides */
    { 0x2060, 0x2065, USE_MESSAGE },   { 0x2066, 0x2069, USE_TEXT },                                  /* isolates */
    { 0x206A, 0x206F, USE_TEXT },      { 0x3164, 0x3164, USE_MESSAGE }, { 0xFE00, 0xFE0F, USE_NAME },
    { 0xFEFF, 0xFEFF, USE_MESSAGE },   { 0xFFA0, 0xFFA0, USE_MESSAGE }, { 0xFFF0, 0xFFFB, USE_TEXT },
    { 0x1BCA0, 0x1BCA3, USE_TEXT },    { 0x1D173, 0x1D17A, USE_TEXT },  { 0xE0000, 0xE00FF, USE_TEXT }, /* tags */
    { 0xE0100, 0xE0FFF, USE_MESSAGE },
};

static int is_harmful(uint32_t code, text_use use)
{
    for (size_t i = 0; i < sizeof harmful_ranges / sizeof harmful_ranges[0]; i++) {
        if (code <= harmful_ranges[i].last) return code >= harmful_ranges[i].first && use >= harmful_ranges[i].from;
    }
    return 0;
}

int is_harmless(const char *text, size_t n, text_use use, size_t *bytes)
{
    uint32_t code = 0;
    *bytes = whole_character(text, n, &code);
    if (*bytes > 0) return !is_harmful(code, use);
    *bytes = 1;
    return 0;
}

void buffer_harmless(buffer *b, const char *text, size_t len, text_use use)
{
    size_t bytes;
    for (size_t i = 0; i < len; i += bytes) {
        int is_fine = is_harmless(text + i, len - i, use, &bytes);
        buffer_add(b, is_fine ? text + i : "?", is_fine ? bytes : 1);
    }
}

/* ---- JSON strings --------------------------------------------------------------------------------- */

static void quote_escaped(buffer *b, uint32_t code)
{
    if (code > 0xFFFF) {
        buffer_fmt(b, "\\u%04x", (unsigned)(0xD7C0 + (code >> 10))); /* a surrogate pair */
        code = 0xDC00 + (code & 0x3FF);
    }
    buffer_fmt(b, "\\u%04x", (unsigned)code);
}

void buffer_quote(buffer *b, const char *text, size_t len)
{
    static const char values[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    buffer_str(b, "\"");
    for (size_t i = 0; i < len;) {
        uint32_t code = 0;
        size_t bytes = whole_character(text + i, len - i, &code);
        unsigned char c = (unsigned char)text[i];
        const char *escaped = c != '\0' ? strchr(values, c) : NULL;
        if (bytes == 0)
            buffer_str(b, "\xEF\xBF\xBD"); /* the replacement character for a byte that belongs to none */
        else if (escaped != NULL)
            buffer_fmt(b, "\\%c", letters[escaped - values]);
        else if (is_harmful(code, USE_TEXT))
            quote_escaped(b, code);
        else
            buffer_add(b, text + i, bytes);
        i += bytes == 0 ? 1 : bytes;
    }
    buffer_str(b, "\"");
}
