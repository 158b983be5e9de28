/* width.c - text on a terminal: what a reader takes for one character, the columns it is drawn in, and text made fit to
 * stand in a line. */
#include "cli.h"
#include "width.h"

enum { JOINER = 0x200D, PICTURE_FORM = 0xFE0F }; /* joins pictures to one; asks for a picture instead of a sign */

static int is_in(const character_range *ranges, size_t n, unsigned code)
{
    size_t low = 0;
    for (size_t high = n; low < high;) {
        size_t middle = low + (high - low) / 2;
        if (ranges[middle].last < code)
            low = middle + 1;
        else
            high = middle;
    }
    return low < n && ranges[low].first <= code;
}

static int code_columns(unsigned code)
{
    if (code < no_columns[0].first) return 1;
    if (is_in(no_columns, sizeof no_columns / sizeof no_columns[0], code)) return 0;
    return is_in(two_columns, sizeof two_columns / sizeof two_columns[0], code) ? 2 : 1;
}

static unsigned code_at(const char *text, size_t bytes)
{
    unsigned code = (unsigned char)text[0];
    if (bytes > 1) code &= 0x7Fu >> bytes;
    for (size_t i = 1; i < bytes; i++) code = code << 6 | ((unsigned char)text[i] & 0x3Fu);
    return code;
}

static int is_flag_letter(unsigned code) { return code >= 0x1F1E6 && code <= 0x1F1FF; } /* two of them are a flag */
static int is_skin_tone(unsigned code) { return code >= 0x1F3FB && code <= 0x1F3FF; }

drawn_character character_at(const char *text, size_t n)
{
    size_t bytes;
    drawn_character c = { .bytes = 1, .columns = 1 };
    if (text[0] >= ' ' && text[0] <= '~' && (n == 1 || (unsigned char)text[1] < 0x80)) return c;
    int is_fine = is_harmless(text, n, USE_TEXT, &bytes);
    c.bytes = bytes;
    c.is_hidden = !is_fine;
    if (!is_fine || (unsigned char)text[0] < 0x20) return c; /* newline and tab stand alone */
    unsigned first = code_at(text, bytes), before = first;
    c.columns = code_columns(first);
    c.needs_base = c.columns == 0;
    if (c.needs_base) c.columns = 1;
    for (size_t pos = bytes; pos < n && (unsigned char)text[pos] >= 0x80; pos += bytes) {
        if (!is_harmless(text + pos, n - pos, USE_TEXT, &bytes)) break;
        unsigned code = code_at(text + pos, bytes);
        int is_second_letter = is_flag_letter(first) && is_flag_letter(code) && pos == 4; /* bytes of the first */
        int is_picture = before == JOINER || is_second_letter || code == PICTURE_FORM || is_skin_tone(code);
        if (code_columns(code) != 0 && (!is_picture || first < 0x2000)) break;
        if (is_picture && first >= 0x2000) { /* where terminals differ */
            c.columns = 2;
            c.is_uncertain = 1;
        }
        c.bytes = pos + bytes;
        before = code;
    }
    return c;
}

int text_columns(const char *text, size_t n)
{
    int columns = 0;
    for (size_t i = 0; i < n;) {
        drawn_character c = character_at(text + i, n - i);
        columns += c.columns;
        i += c.bytes;
    }
    return columns;
}

void buffer_utf8(buffer *b, const char *text, size_t n)
{
    size_t from = 0, bytes;
    for (size_t i = 0; i < n; i += bytes) {
        int is_malformed =
            !is_harmless(text + i, n - i, USE_TEXT, &bytes) && bytes == 1 && (unsigned char)text[i] >= 0x80;
        if (!is_malformed && text[i] != '\0') continue;
        buffer_add(b, text + from, i - from);
        buffer_str(b, "\xEF\xBF\xBD"); /* U+FFFD */
        from = i + 1;
    }
    buffer_add(b, text + from, n - from);
}
