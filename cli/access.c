/* access.c - who may ask the server: keys, the Host that a request names, so that no web page reaches it under a name
 * of its own, and the Origin of pages. */
#include "serve.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- Keys -------------------------------------------------------------------------------------------------------- */

/* A line each, but for blank ones and those that begin with #. What editors put in front of UTF-8 is of no key; in
 * UTF-16 every key would end behind its first letter. */
int keys_read_file(server *s, const char *path)
{
    static const char mark[] = "\xef\xbb\xbf";
    buffer text = { 0 };
    int status = file_read(path, &text);
    char *rest = text.data, *line;
    if (status == DONE && text.len > 0 && memchr(text.data, '\0', text.len) != NULL)
        status = say(FAILED, "%s: expected a key a line as UTF-8, found a NUL", path);
    if (status == DONE && text.len >= 3 && memcmp(rest, mark, 3) == 0) rest += 3;
    if (status == DONE) s->keys = calloc(text.len + 1, sizeof *s->keys);
    if (status == DONE && s->keys == NULL) status = say(FAILED, "no memory for the keys of %s", path);
    for (char *next = rest; status == DONE && next != NULL && *next != '\0';) {
        line = next;
        next = strchr(line, '\n');
        if (next != NULL) *next++ = '\0';
        line += strspn(line, " \t");
        size_t n = strlen(line);
        while (n > 0 && strchr(" \t\r", line[n - 1]) != NULL) line[--n] = '\0';
        if (n == 0 || line[0] == '#') continue;
        s->keys[s->n_keys] = strdup(line);
        if (s->keys[s->n_keys++] == NULL) status = say(FAILED, "no memory for the keys of %s", path);
    }
    buffer_free(&text);
    return status == DONE && s->n_keys == 0 ? say(FAILED, "%s holds no key", path) : status;
}

/* In a time that depends on the length of what is given alone. */
static int is_key(const server *s, const char *given)
{
    const size_t n = strlen(given);
    int found = 0;
    for (int i = 0; i < s->n_keys; i++) {
        const char *key = s->keys[i];
        const size_t len = strlen(key);
        volatile unsigned char differs = len != n;
        for (size_t k = 0; k < n; k++) differs = (unsigned char)(differs | (given[k] ^ key[k % len]));
        found |= differs == 0;
    }
    return found;
}

static int has_key(const connection *c)
{
    const char *given = http_get(&c->request, "authorization"), *own = http_get(&c->request, "x-api-key");
    if (c->s->n_keys == 0) return 1;
    if (given != NULL && strncasecmp(given, "Bearer ", 7) == 0) return is_key(c->s, given + 7);
    return own != NULL && is_key(c->s, own);
}

/* ---- Names ------------------------------------------------------------------------------------------------------- */

/* Does the Host field name that host, with any port or none? */
static int names_host(const char *field, const char *host)
{
    char name[256];
    const int is_six = field[0] == '[';
    const size_t n = strcspn(field + is_six, is_six ? "]" : ":");
    const char *rest = field + is_six + n;
    if (is_six && *rest != ']') return 0;
    rest += is_six;
    if (*rest == ':') rest += 1 + strspn(rest + 1, "0123456789");
    if (*rest != '\0' || n >= sizeof name || is_six != (strchr(host, ':') != NULL)) return 0;
    memcpy(name, field + is_six, n);
    name[n] = '\0';
    return http_same(name, host);
}

/* Under another name a page of that name could ask, from a browser that was told that the name is this machine's. */
static int is_known_host(const connection *c)
{
    static const char *const names[] = { "localhost", "127.0.0.1", "::1" };
    const char *host = http_get(&c->request, "host");
    if (host == NULL || c->s->listeners.is_everywhere) return 1;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names_host(host, names[i])) return 1;
    }
    return names_host(host, c->s->args->host);
}

/* Of a page of --cors; NULL: it is none. */
static const char *allowed_origin(const connection *c)
{
    const char *origin = http_get(&c->request, "origin"), *allowed = c->s->args->cors;
    if (origin == NULL || allowed == NULL) return NULL;
    return strcmp(allowed, "*") == 0 || http_same(allowed, origin) ? origin : NULL;
}

/* One that no browser sends would let nobody in, and nobody would know why. */
int cors_is_origin(const char *text)
{
    const char *name = strstr(text, "://");
    if (strcmp(text, "*") == 0 || strcmp(text, "null") == 0) return 1;
    return name != NULL && name != text && name[3] != '\0' && strpbrk(name + 3, "/?#@ \t,*") == NULL;
}

/* Our own page, at the name that the request has. */
static int is_own_page(const char *origin, const char *host)
{
    const char *name = strncmp(origin, "http://", 7) == 0    ? origin + 7
                       : strncmp(origin, "https://", 8) == 0 ? origin + 8
                                                             : NULL;
    return name != NULL && host != NULL && http_same(name, host);
}

int access_allowed(connection *c, int needs_key)
{
    const char *origin = http_get(&c->request, "origin"), *host = http_get(&c->request, "host");
    c->origin = allowed_origin(c);
    if (!is_known_host(c)) {
        connection_error(c, 403, NULL, "Host: expected localhost, 127.0.0.1, [::1] or the name of --host, found %.100s",
                         host);
        return 0;
    }
    if (origin != NULL && c->origin == NULL && !is_own_page(origin, host)) {
        connection_error(c, 403, NULL, "Origin: pages of %.100s may not ask; --cors allows one", origin);
        return 0;
    }
    if (needs_key && !has_key(c)) {
        connection_error(c, 401, NULL, "Authorization: expected \"Bearer KEY\" with a key of --api-key-file");
        return 0;
    }
    return 1;
}
