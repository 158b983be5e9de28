/* paths.c - what people write for the name of a file. A shell takes quotes, backslashes and ~ away; a chat, a setting
 * in a file, --name=~/x and a name that was dragged into the terminal still have them. A name of a file that is there
 * is always itself. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static int begins(const char *text, const char *with) { return strncasecmp(text, with, strlen(with)) == 0; }
static int exists(const char *path) { return access(path, F_OK) == 0; }

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c != '\0' ? strchr(digits, c >= 'A' && c <= 'F' ? c + ('a' - 'A') : c) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

/* One word as a shell reads it: without the blanks around it, its quotes, and the backslashes outside of single ones.
 * 0: a quote is not closed. */
static int add_unquoted(buffer *out, const char *text)
{
    size_t n = strlen(text);
    char quote = '\0';
    while (n > 0 && strchr(" \t\r\n", text[n - 1]) != NULL && (n < 2 || text[n - 2] != '\\')) n--;
    for (size_t i = strspn(text, " \t\r\n"); i < n; i++) {
        char c = text[i];
        if (c == quote || (quote == '\0' && (c == '\'' || c == '"'))) {
            quote = c == quote ? '\0' : c;
            continue;
        }
        if (c == '\\' && quote != '\'' && i + 1 < n) c = text[++i];
        buffer_add(out, &c, 1);
    }
    return quote == '\0';
}

/* The path of a file: address (RFC 8089) of this machine. */
static int add_file_address(buffer *out, const char *address)
{
    static const char here[] = "//localhost/";
    const char *p = address + strlen("file:");
    if (begins(p, here))
        p += sizeof here - 2;
    else if (strncmp(p, "///", 3) == 0)
        p += 2;
    if (p[0] != '/' || p[1] == '/') return say(USAGE, "%s is not an address of a file on this machine", address);
    for (; *p != '\0'; p++) {
        char c = *p;
        if (c == '%') {
            int high = hex_digit(p[1]), low = high >= 0 ? hex_digit(p[2]) : -1;
            if (low < 0 || high + low == 0) return say(USAGE, "%s: %%%.2s is no byte of a name", address, p + 1);
            c = (char)(16 * high + low);
            p += 2;
        }
        buffer_add(out, &c, 1);
    }
    return DONE;
}

int path_expand(const char *given, buffer *out)
{
    const char *home = getenv("HOME");
    int status = DONE;
    if (begins(given, "http://") || begins(given, "https://") || begins(given, "ftp://"))
        return say(USAGE, "%s: web addresses are not opened: download the file first", given);
    if (begins(given, "file:") && !exists(given))
        status = add_file_address(out, given);
    else if (given[0] == '~' && given[1] == '/' && home != NULL && !exists(given))
        buffer_fmt(out, "%s%s", home, given + 1);
    else
        buffer_str(out, given);
    return status == DONE && out->failed ? say(FAILED, "no memory for %s", given) : status;
}

int path_read(const char *given, buffer *out)
{
    buffer word = { 0 };
    int status = DONE, is_word = !exists(given) && add_unquoted(&word, given) && word.len > 0;
    if (is_word) status = path_expand(word.data, out);
    if (status == DONE && (!is_word || out->failed || !exists(out->data))) { /* then it is told as it was given */
        out->len = 0;
        status = path_expand(given, out);
    }
    buffer_free(&word);
    return status;
}
