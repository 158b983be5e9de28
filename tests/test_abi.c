/* test_abi.c - nothing of the public structs and enumerators moves unnoticed: each stands in abi.h with its place, and
 * whatever gemma4.h declares stands there. */
#include <ctype.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "gemma4.h"
#include "test.h"

typedef struct {
    const char *type, *name;    /* of a field; a struct has no name, an enumerator no type */
    long promised[2], found[2]; /* offset and size; of an enumerator its value */
} g4_promise;

#define G4_SIZE(type, name) ((long)sizeof(((type *)0)->name))
static const g4_promise g4_promises[] = {
#define G4_STRUCT(type, size) { #type, NULL, { 0, size }, { 0, (long)sizeof(type) } },
#define G4_FIELD(type, name, offset, size)                                                                             \
    { #type, #name, { offset, size }, { (long)offsetof(type, name), G4_SIZE(type, name) } },
#define G4_VALUE(name, value) { NULL, #name, { value, 0 }, { (long)(name), 0 } },
#include "abi.h"
};
enum { G4_N_PROMISES = sizeof g4_promises / sizeof *g4_promises };

static void g4_check_places(void)
{
    for (int i = 0; i < G4_N_PROMISES; i++) {
        const g4_promise *p = &g4_promises[i];
        if (!p->type)
            G4_EXPECT(p->found[0] == p->promised[0], "%s is %ld, it was %ld", p->name, p->found[0], p->promised[0]);
        else if (!p->name)
            G4_EXPECT(p->found[1] == p->promised[1], "%s has %ld bytes, it had %ld", p->type, p->found[1],
                      p->promised[1]);
        else
            G4_EXPECT(p->found[0] == p->promised[0] && p->found[1] == p->promised[1],
                      "%s.%s: %ld bytes at %ld, they were %ld at %ld", p->type, p->name, p->found[1], p->found[0],
                      p->promised[1], p->promised[0]);
    }
}

/* ---- What gemma4.h declares ------------------------------------------------------------------------------------- */

static int g4_same(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : a == b; }

static void g4_expect_listed(const char *type, const char *name)
{
    int listed = 0;
    for (int i = 0; i < G4_N_PROMISES; i++)
        listed |= g4_same(g4_promises[i].type, type) && g4_same(g4_promises[i].name, name);
    G4_EXPECT(listed, "%s%s%s stands in gemma4.h and not in tests/abi.h", type ? type : "", type && name ? "." : "",
              name ? name : "");
}

/* The header, its comments blank. */
static char *g4_read_header(void)
{
    FILE *f = fopen("gemma4.h", "rb");
    char *text = calloc(1, 1 << 20);
    if (f && text) text[fread(text, 1, (1 << 20) - 1, f)] = '\0';
    if (f) fclose(f);
    for (char *p = text; p && (p = strstr(p, "/*")) != NULL;) {
        const char *end = strstr(p, "*/");
        for (; end && p < end + 2; p++) *p = ' ';
        if (!end) break;
    }
    return text;
}

/* The last identifier in text[0 .. len), or the one behind "(*" of a function's pointer, NUL-terminated in name[64]. */
static void g4_declared_name(const char *text, size_t len, char *name)
{
    size_t end = len, start;
    for (size_t i = 0; i < len; i++)
        if (text[i] == '[' && end == len) end = i;
    for (size_t i = 0; i + 1 < len; i++) {
        if (text[i] != '(' || text[i + 1] != '*') continue;
        for (end = i + 2; end < len && (isalnum((unsigned char)text[end]) || text[end] == '_');) end++;
        break;
    }
    while (end > 0 && !isalnum((unsigned char)text[end - 1]) && text[end - 1] != '_') end--;
    for (start = end; start > 0 && (isalnum((unsigned char)text[start - 1]) || text[start - 1] == '_');) start--;
    snprintf(name, 64, "%.*s", (int)(end - start), text + start);
}

/* Those at the end of the manual's rule: they are too small to grow. */
static int g4_may_end_otherwise(const char *type)
{
    static const char *const plain[] = { "g4_error",  "g4_allocator",  "g4_cancel",   "g4_utf8",
                                         "g4_medium", "g4_logit_bias", "g4_candidate" };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcmp(type, plain[i]) == 0) return 1;
    return 0;
}

/* The declarations between the braces of one struct (type) or enum (NULL). */
static void g4_check_body(const char *body, const char *end, const char *type)
{
    char name[64] = "";
    for (const char *p = body; p < end;) {
        int depth = 0;
        const char *stop = p; /* at the next comma or semicolon outside parentheses */
        for (; stop < end && (depth > 0 || !strchr(",;", *stop)); stop++) depth += (*stop == '(') - (*stop == ')');
        size_t len = (size_t)(stop - p);
        const char *value = type ? NULL : memchr(p, '=', len);
        char found[64];
        g4_declared_name(p, value ? (size_t)(value - p) : len, found);
        if (found[0]) {
            g4_expect_listed(type, found);
            memcpy(name, found, sizeof name);
        }
        p = stop + 1;
    }
    if (type && !g4_may_end_otherwise(type))
        G4_EXPECT(strcmp(name, "reserved") == 0, "%s ends in %s, not in reserved room", type, name);
}

static void g4_check_header(const char *head, int is_struct)
{
    char *text = g4_read_header(), type[64];
    int n = 0;
    for (const char *p = text; p && (p = strstr(p, head)) != NULL; n++) {
        p += strlen(head);
        const char *end = strchr(p, '}'), *stop = end ? strchr(end, ';') : NULL;
        if (!stop) break;
        g4_declared_name(end, (size_t)(stop - end), type);
        if (is_struct) g4_expect_listed(type, NULL);
        g4_check_body(p, end, is_struct ? type : NULL);
        p = stop;
    }
    G4_EXPECT(n > 5, "only %d of \"%s\" in gemma4.h", n, head);
    free(text);
}

int main(void)
{
    if (sizeof(long) == 8 && sizeof(void *) == 8)
        g4_check_places();
    else
        G4_SKIP("the promised places are those where long and pointers have 64 bits");
    g4_check_header("typedef struct {", 1);
    g4_check_header("typedef enum {", 0);
    return g4_test_end();
}
