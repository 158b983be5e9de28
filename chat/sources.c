/* sources.c - where the media of a conversation come from: a path or an address, a data: URL, or base64 under several
 * names. Which file a path may name is decided here, so that a conversation from a stranger reaches those below one
 * folder and no other, whatever its links, dots and addresses say. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define G4_PATH_SIZE 4096 /* bytes of a path with its NUL, at most */

/* ---- Content parts ------------------------------------------------------------------------------- */

const g4_json *g4_medium_source_text(const g4_json *part, int *is_base64)
{
    static const char *const names[] = { "image_url", "audio_url", "video_url", "input_audio", "image", "audio",
                                         "video",     "url",       "path",      "data",        "base64" };
    enum { FIRST_BASE64 = 9, N_NAMES = 11 };
    while (part != NULL) {
        const g4_json *inner = NULL;
        for (int i = 0; i < N_NAMES && inner == NULL; i++) {
            const g4_json *v = g4_json_get(part, names[i]);
            if (g4_json_is(v, G4_JSON_STRING)) {
                *is_base64 = i >= FIRST_BASE64;
                return v;
            }
            if (g4_json_is(v, G4_JSON_OBJECT)) inner = v;
        }
        part = inner;
    }
    return NULL;
}

/* Do the first n bytes of s equal the word, in capitals or not? */
static int g4_source_starts(const char *s, size_t n, const char *word)
{
    size_t i = 0;
    for (; word[i] != '\0'; i++)
        if (i >= n || (g4_is_letter(s[i]) ? (s[i] | 0x20) : s[i]) != word[i]) return 0;
    return 1;
}

/* data:TYPE;PARAMETERS;base64,DATA or data:TYPE,DATA, whose bytes are escaped as in addresses. */
static g4_status g4_medium_source_data(g4_medium_source *out, const char *s, size_t n, int message, g4_error *err)
{
    static const char mark[] = ";base64";
    const size_t len = sizeof mark - 1;
    const char *comma = memchr(s, ',', n);
    if (comma == NULL)
        return g4_fail(err, G4_ERR_FORMAT, "messages[%d]: a data URL must hold a comma and its data behind it",
                       message);
    const int is_base64 = (size_t)(comma - s) >= 5 + len && g4_source_starts(comma - len, len, mark);
    *out = (g4_medium_source) { .data = comma + 1,
                                .n_data = n - (size_t)(comma + 1 - s),
                                .is_base64 = is_base64,
                                .is_escaped = !is_base64 || memchr(comma, '%', n - (size_t)(comma - s)) != NULL };
    return G4_OK;
}

g4_status g4_medium_source_find(g4_medium_source *out, const g4_json *part, int message, g4_error *err)
{
    int is_base64 = 0;
    const g4_json *v = g4_medium_source_text(part, &is_base64);
    *out = (g4_medium_source) { 0 };
    if (v == NULL) return G4_OK;
    if (g4_source_starts(v->text, v->text_len, "data:"))
        return g4_medium_source_data(out, v->text, v->text_len, message, err);
    if (is_base64)
        *out = (g4_medium_source) { .data = v->text, .n_data = v->text_len, .is_base64 = 1 };
    else if (memchr(v->text, '\0', v->text_len) != NULL)
        return g4_fail(err, G4_ERR_FORMAT, "messages[%d]: a path must not hold a NUL", message);
    else
        out->place = v->text;
    return G4_OK;
}

/* ---- Bytes --------------------------------------------------------------------------------------- */

/* The six bits of a letter of base64, of either alphabet; 64: it is none. */
static uint32_t g4_base64_bits(char ch)
{
    if (ch >= 'A' && ch <= 'Z') return (uint32_t)(ch - 'A');
    if (ch >= 'a' && ch <= 'z') return (uint32_t)(ch - 'a' + 26);
    if (g4_is_digit(ch)) return (uint32_t)(ch - '0' + 52);
    if (ch == '+' || ch == '-') return 62;
    return ch == '/' || ch == '_' ? 63 : 64;
}

int g4_base64_decode(const char *s, size_t n, uint8_t *out, size_t *size, g4_halt *halt)
{
    uint32_t bits = 0;
    int n_letters = 0, padded = 0; /* n_letters: of the group of four that is being read */
    *size = 0;
    for (size_t i = 0; i < n; i++) {
        if (i % G4_COPY_PIECE == 0 && g4_halted(halt)) return 0;
        if (g4_is_blank(s[i])) continue;
        if (s[i] == '=') {
            padded = 1;
            continue;
        }
        const uint32_t six = g4_base64_bits(s[i]);
        if (six > 63 || padded) return 0;
        bits = bits << 6 | six;
        if (++n_letters == 4) {
            for (int shift = 16; shift >= 0; shift -= 8) out[(*size)++] = (uint8_t)(bits >> shift);
            n_letters = 0;
            bits = 0;
        }
    }
    if (n_letters == 1) return 0;
    if (n_letters >= 2) out[(*size)++] = (uint8_t)(bits >> (n_letters == 2 ? 4 : 10));
    if (n_letters == 3) out[(*size)++] = (uint8_t)(bits >> 2);
    return 1;
}

int g4_percent_decode(const char *s, size_t n, char *out, size_t *size, g4_halt *halt)
{
    *size = 0;
    size_t ask = 0;
    for (size_t i = 0; i < n; i++) {
        if (i >= ask) {
            if (g4_halted(halt)) return 0;
            ask = i + G4_COPY_PIECE;
        }
        uint32_t byte = (unsigned char)s[i];
        if (s[i] == '%') {
            if (n - i < 3 || !g4_hex_read(s + i + 1, 2, &byte)) return 0;
            i += 2;
        }
        out[(*size)++] = (char)byte;
    }
    return 1;
}

size_t g4_medium_source_room(const g4_medium_source *s)
{
    return s->is_escaped ? s->n_data + 1 : s->n_data / 4 * 3 + 4;
}

g4_status g4_medium_source_decode(const g4_medium_source *s, uint8_t *out, size_t *size, int message, g4_halt *halt,
                                  g4_error *err)
{
    const char *data = s->data;
    size_t n = s->n_data;
    if (s->is_escaped) {
        if (!g4_percent_decode(data, n, (char *)out, size, halt))
            return g4_halted(halt) ? g4_halt_check(halt, err)
                                   : g4_fail(err, G4_ERR_FORMAT,
                                             "messages[%d]: in a data URL, %% needs two hexadecimal digits", message);
        data = (const char *)out;
        n = *size;
    }
    /* in place where it was escaped: three bytes are written when four have been read */
    if (s->is_base64 && !g4_base64_decode(data, n, out, size, halt))
        return g4_halted(halt) ? g4_halt_check(halt, err)
                               : g4_fail(err, G4_ERR_FORMAT, "messages[%d]: malformed base64", message);
    return G4_OK;
}

int g4_medium_is_text(const uint8_t *head, size_t n)
{
    static const char signature[] = "YUV4MPEG2 ";
    const size_t len = n < G4_MEDIUM_HEAD ? n : G4_MEDIUM_HEAD;
    if (n > 2 && head[0] == 'P' && head[1] >= '1' && head[1] <= '7') return 0;
    if (n >= sizeof signature - 1 && memcmp(head, signature, sizeof signature - 1) == 0) return 0;
    for (size_t i = 0; i < len; i++)
        if (head[i] < 0x20 ? !g4_is_blank((char)head[i]) : head[i] > 0x7e) return 0;
    return n > 0;
}

size_t g4_medium_read_head(uint8_t head[G4_MEDIUM_HEAD], const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe that nobody writes into has no bytes */
    if (fd < 0) return 0;
    const ssize_t n = read(fd, head, G4_MEDIUM_HEAD);
    close(fd);
    return n > 0 ? (size_t)n : 0;
}

/* ---- Files --------------------------------------------------------------------------------------- */

/* Is it an address such as https://host/path? */
static int g4_source_is_address(const char *s)
{
    size_t i = 0;
    while (g4_is_letter(s[i]) || (i > 0 && (g4_is_digit(s[i]) || g4_is_one_of("+-.", s[i])))) i++;
    return i > 0 && strncmp(s + i, "://", 3) == 0;
}

/* The path that a source says: its own text, or that of a file: address. */
static g4_status g4_source_path(char path[G4_PATH_SIZE], const char *source, g4_error *err)
{
    const char *s = source;
    size_t n = strlen(s);
    if (n == 0) return g4_fail(err, G4_ERR_ARGUMENT, "an address or path is empty");
    if (n >= G4_PATH_SIZE) return g4_fail(err, G4_ERR_ARGUMENT, "a path of %zu bytes is too long", n);
    if (!g4_source_starts(s, n, "file:")) {
        if (g4_source_is_address(s))
            return g4_fail(err, G4_ERR_ARGUMENT, "%.100s: addresses are not fetched; give a file or data", source);
        memcpy(path, s, n + 1);
        return G4_OK;
    }
    s += 5;
    if (strncmp(s, "//", 2) == 0) s += 2;
    if (strncmp(s, "localhost/", 10) == 0) s += 9;
    if (s[0] != '/') return g4_fail(err, G4_ERR_ARGUMENT, "%.100s: files of other hosts are not fetched", source);
    if (!g4_percent_decode(s, strlen(s), path, &n, NULL) || memchr(path, '\0', n) != NULL)
        return g4_fail(err, G4_ERR_ARGUMENT, "%.100s: %% needs two hexadecimal digits, and not 00", source);
    path[n] = '\0';
    return G4_OK;
}

/* The real path of folder/path, or of the path itself where folder is NULL, if it is a plain file below `root`, which
 * is a real path itself; else 0. */
static int g4_source_resolve(char real[G4_PATH_SIZE], const char *root, const char *folder, const char *path)
{
    char joined[G4_PATH_SIZE];
    struct stat st;
    const int n =
        snprintf(joined, sizeof joined, "%s%s%s", folder != NULL ? folder : "", folder != NULL ? "/" : "", path);
    if (n < 0 || n >= (int)sizeof joined || realpath(joined, real) == NULL) return 0;
    const size_t len = strcmp(root, "/") == 0 ? 0 : strlen(root);
    return strncmp(real, root, len) == 0 && real[len] == '/' && stat(real, &st) == 0 && S_ISREG(st.st_mode);
}

g4_status g4_media_below(const char *root, const char *source, char *path, size_t size, g4_error *err)
{
    char base[G4_PATH_SIZE], said[G4_PATH_SIZE] = "", real[G4_PATH_SIZE];
    if (root == NULL || source == NULL || path == NULL)
        return g4_fail(err, G4_ERR_ARGUMENT, "%s is NULL", root == NULL ? "root" : source == NULL ? "source" : "path");
    if (size > 0) path[0] = '\0';
    if (realpath(root[0] != '\0' ? root : ".", base) == NULL)
        return g4_fail(err, G4_ERR_IO, "%.120s: there is no such folder", root);
    const g4_status st = g4_source_path(said, source, err);
    if (st != G4_OK) return st;
    const int is_found =
        (said[0] != '/' && g4_source_resolve(real, base, base, said)) || g4_source_resolve(real, base, NULL, said);
    if (!is_found) /* whether there is one elsewhere is nobody's business */
        return g4_fail(err, G4_ERR_IO, "%.100s: there is no such file below %.100s", source,
                       root[0] != '\0' ? root : ".");
    if (strlen(real) >= size) return g4_fail(err, G4_ERR_ARGUMENT, "a path of %zu bytes is too long", strlen(real));
    memcpy(path, real, strlen(real) + 1);
    return G4_OK;
}
