/* refs.c - where the references of a JSON Schema lead. One walk over the document finds its resources (schemas with an
 * address of their own, the document being the first), its anchors, and in which resource each reference stands; a
 * reference is then a resource and a place in it. What lies outside the document is nowhere. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <stdlib.h>
#include <string.h>

#define G4_REFS_MAX_DEPTH 520 /* no parsed document is nested deeper */
#define G4_REFS_MAX_URI 1000  /* bytes of an address, at most */

typedef struct {
    const g4_json *node;
    const char *uri; /* absolute where the document says so; without a fragment */
} g4_resource;

typedef struct {
    const g4_json *node;
    const g4_json *name; /* a string */
    int resource, is_dynamic;
} g4_anchor;

typedef struct { /* a schema with a reference */
    const g4_json *node;
    int resource;
} g4_referrer;

typedef struct {
    const g4_json *object;
    const g4_json *member; /* NULL: the object has all its members here */
} g4_named_member;
#define G4_REFS_MANY 64 /* members */

struct g4_refs {
    g4_arena *arena;
    const g4_json *root;
    int draft;
    g4_resource *resources;
    g4_anchor *anchors;
    g4_referrer *referrers; /* by ascending address of the node */
    int n_resources, cap_resources, n_anchors, cap_anchors, n_referrers, cap_referrers;
    g4_named_member *members; /* of objects in which a search for a name would take long */
    g4_hash_table member_table;
    int n_members, cap_members;
    int failed; /* no memory */
};

/* ---- Addresses ----------------------------------------------------------------------------------- */

/* Bytes of the scheme with its colon; 0: it has none. */
static size_t g4_uri_scheme(const char *s)
{
    size_t i = 0;
    if (!g4_is_letter(s[0])) return 0;
    while (g4_is_letter(s[i]) || g4_is_digit(s[i]) || g4_is_one_of("+.-", s[i])) i++;
    return s[i] == ':' ? i + 1 : 0;
}

/* Where the path begins. */
static size_t g4_uri_path(const char *s)
{
    size_t i = g4_uri_scheme(s);
    if (s[i] != '/' || s[i + 1] != '/') return i;
    for (i += 2; s[i] != '\0' && s[i] != '/'; i++) {
    }
    return i;
}

/* Take `.` and `..` out of the path that begins at `start`. */
static void g4_uri_remove_dots(char *s, size_t start)
{
    size_t out = start, i = start;
    while (s[i] != '\0') {
        size_t end = i;
        while (s[end] != '\0' && s[end] != '/') end++;
        const size_t n = end - i;
        const int is_last = s[end] == '\0';
        if (n == 2 && s[i] == '.' && s[i + 1] == '.') {
            if (out > start) out--; /* the slash behind the part that goes */
            while (out > start && s[out - 1] != '/') out--;
        } else if (n != 1 || s[i] != '.') {
            memmove(s + out, s + i, n);
            out += n;
            if (!is_last) s[out++] = '/';
        }
        i = end + (size_t)!is_last;
    }
    s[out] = '\0';
}

/* The address that the n bytes of `ref` mean beside `base` (RFC 3986, 5.2), without its fragment; 0: it is too long. */
static int g4_uri_resolve(char out[G4_REFS_MAX_URI], const char *base, const char *ref, size_t n)
{
    const size_t path = g4_uri_path(base);
    size_t keep;
    for (size_t i = 0; i < n; i++)
        if (ref[i] == '#') n = i;
    if (n == 0)
        keep = strlen(base);
    else if (g4_uri_scheme(ref) > 0)
        keep = 0;
    else if (ref[0] == '/')
        keep = n > 1 && ref[1] == '/' ? g4_uri_scheme(base) : path;
    else
        for (keep = strlen(base); keep > path && base[keep - 1] != '/'; keep--) {
        }
    if (keep + n >= G4_REFS_MAX_URI) return 0;
    memcpy(out, base, keep);
    memcpy(out + keep, ref, n);
    out[keep + n] = '\0';
    const size_t start = g4_uri_path(out);
    if (out[start] == '/') g4_uri_remove_dots(out, start + 1);
    return 1;
}

/* ---- The walk ------------------------------------------------------------------------------------ */

/* What the members of a node are: keywords, schemas by name, or values that are not looked into. */
typedef enum { G4_WALK_SCHEMA, G4_WALK_MAP, G4_WALK_NOTHING } g4_walk;

static g4_walk g4_walk_below(const g4_json *member)
{
    static const char *const maps[] = { "properties",       "patternProperties", "$defs", "definitions",
                                        "dependentSchemas", "dependencies",      NULL };
    static const char *const values[] = { "enum", "const", "default", "examples", "example", "required", NULL };
    if (member->key == NULL) return G4_WALK_SCHEMA;
    if (g4_json_key_in(member, maps)) return G4_WALK_MAP;
    return g4_json_key_in(member, values) ? G4_WALK_NOTHING : G4_WALK_SCHEMA;
}

static void g4_refs_add_anchor(g4_refs *r, const g4_json *node, const g4_json *name, int resource, int is_dynamic)
{
    g4_anchor *anchors = g4_array_grow(r->arena->a, r->anchors, r->n_anchors, &r->cap_anchors, sizeof *anchors);
    r->failed |= anchors == NULL;
    if (anchors == NULL) return;
    r->anchors = anchors;
    anchors[r->n_anchors++] = (g4_anchor) { node, name, resource, is_dynamic };
}

static void g4_refs_add_referrer(g4_refs *r, const g4_json *node, int resource)
{
    g4_referrer *all = g4_array_grow(r->arena->a, r->referrers, r->n_referrers, &r->cap_referrers, sizeof *all);
    r->failed |= all == NULL;
    if (all == NULL) return;
    r->referrers = all;
    all[r->n_referrers++] = (g4_referrer) { node, resource };
}

/* A resource whose address is `id` beside that of another one; returns its number, or the other's when it has none. */
static int g4_refs_add_resource(g4_refs *r, const g4_json *node, const char *id, size_t n, int beside)
{
    char uri[G4_REFS_MAX_URI];
    if (!g4_uri_resolve(uri, beside >= 0 ? r->resources[beside].uri : "", id, n)) return beside;
    char *copy = g4_arena_alloc(r->arena, strlen(uri) + 1);
    g4_resource *all =
        g4_array_grow(r->arena->a, r->resources, r->n_resources, &r->cap_resources, sizeof *r->resources);
    if (all != NULL) r->resources = all;
    r->failed |= copy == NULL || all == NULL;
    if (copy == NULL || all == NULL) return beside;
    memcpy(copy, uri, strlen(uri) + 1);
    all[r->n_resources] = (g4_resource) { node, copy };
    return r->n_resources++;
}

/* Note what the schema says of itself; returns the resource that its members belong to. */
static int g4_refs_note(g4_refs *r, const g4_json *s, int resource)
{
    const g4_json *id = NULL, *ref = NULL;
    const int is_old = r->draft <= 4;
    for (const g4_json *m = s->child; m != NULL; m = m->next) {
        if (m->kind != G4_JSON_STRING) continue;
        if (g4_json_key_is(m, is_old ? "id" : "$id")) id = m;
        if (g4_json_key_is(m, "$ref") || g4_json_key_is(m, "$dynamicRef") || g4_json_key_is(m, "$recursiveRef"))
            ref = m;
    }
    const int is_hidden = ref != NULL && r->draft <= 7; /* beside a reference, older drafts see nothing */
    if (id != NULL && !is_hidden && id->text_len > 0) {
        if (id->text[0] == '#')
            g4_refs_add_anchor(r, s, id, resource, 0);
        else if (s != r->root)
            resource = g4_refs_add_resource(r, s, id->text, id->text_len, resource);
    }
    for (const g4_json *m = s->child; m != NULL; m = m->next) {
        if (m->kind != G4_JSON_STRING || m->key[0] != '$') continue;
        if (g4_json_key_is(m, "$anchor")) g4_refs_add_anchor(r, s, m, resource, 0);
        if (g4_json_key_is(m, "$dynamicAnchor")) g4_refs_add_anchor(r, s, m, resource, 1);
    }
    if (ref != NULL) g4_refs_add_referrer(r, s, resource);
    return resource;
}

static uint32_t g4_member_hash(const g4_json *object, const char *name, size_t n)
{
    return (uint32_t)g4_hash_mix((uintptr_t)object, n > 0 ? g4_hash_bytes(name, n) : 0);
}

static void g4_refs_add_member(g4_refs *r, const g4_json *object, const g4_json *member)
{
    const uint32_t hash =
        member != NULL ? g4_member_hash(object, member->key, member->key_len) : g4_member_hash(object, NULL, 0);
    g4_named_member *members = g4_array_grow(r->arena->a, r->members, r->n_members, &r->cap_members, sizeof *members);
    if (members != NULL) r->members = members;
    if (members == NULL || !g4_table_reserve(&r->member_table, r->arena->a, r->n_members)) {
        r->failed = 1;
        return;
    }
    members[r->n_members] = (g4_named_member) { object, member };
    g4_table_put(&r->member_table, hash, r->n_members++);
}

/* Remember the members of an object by name, if they are many. */
static void g4_refs_add_members(g4_refs *r, const g4_json *object)
{
    int n = 0;
    for (const g4_json *m = object->child; m != NULL && n < G4_REFS_MANY; m = m->next) n++;
    if (n < G4_REFS_MANY) return;
    g4_refs_add_member(r, object, NULL);
    for (const g4_json *m = object->child; m != NULL && !r->failed; m = m->next) g4_refs_add_member(r, object, m);
}

static void g4_refs_walk(g4_refs *r, g4_halt *halt)
{
    struct {
        const g4_json *next;
        int resource;
        g4_walk walk;
    } *stack = g4_alloc(r->arena->a, G4_REFS_MAX_DEPTH, sizeof *stack), *top;
    g4_asker asker = { .halt = halt };
    int depth = 0;
    r->failed |= stack == NULL;
    if (stack == NULL) return;
    stack[depth].resource = g4_refs_note(r, r->root, 0);
    stack[depth].next = r->root->child;
    stack[depth++].walk = G4_WALK_SCHEMA;
    while (depth > 0 && !r->failed && !g4_ask(&asker)) {
        top = &stack[depth - 1];
        const g4_json *v = top->next;
        if (v == NULL) {
            depth--;
            continue;
        }
        top->next = v->next;
        const g4_walk walk = top->walk == G4_WALK_MAP ? G4_WALK_SCHEMA : g4_walk_below(v);
        if (walk == G4_WALK_NOTHING || v->child == NULL || depth == G4_REFS_MAX_DEPTH) continue;
        stack[depth].resource = top->resource;
        if (walk == G4_WALK_MAP && v->kind == G4_JSON_OBJECT) g4_refs_add_members(r, v);
        if (v->kind == G4_JSON_OBJECT && walk == G4_WALK_SCHEMA)
            stack[depth].resource = g4_refs_note(r, v, top->resource);
        stack[depth].next = v->child;
        stack[depth++].walk = v->kind == G4_JSON_OBJECT ? walk : G4_WALK_SCHEMA;
    }
    g4_free(r->arena->a, stack);
}

static int g4_referrer_compare(const void *pa, const void *pb)
{
    const uintptr_t a = (uintptr_t)((const g4_referrer *)pa)->node, b = (uintptr_t)((const g4_referrer *)pb)->node;
    return (a > b) - (a < b);
}

/* The draft that $schema names: 3, 4, 6, 7, 2019 or 2020. */
static int g4_refs_draft(const g4_json *root)
{
    static const struct {
        const char *name;
        int draft;
    } drafts[] = { { "draft-03", 3 }, { "draft-04", 4 }, { "draft-05", 4 },   { "draft-06", 6 },
                   { "draft-07", 7 }, { "draft-7", 7 },  { "2019-09", 2019 }, { "draft-4", 4 } };
    const g4_json *schema = g4_json_get(root, "$schema");
    for (size_t i = 0; g4_json_is(schema, G4_JSON_STRING) && i < sizeof drafts / sizeof drafts[0]; i++)
        if (strstr(schema->text, drafts[i].name) != NULL) return drafts[i].draft;
    return 2020;
}

g4_refs *g4_refs_open(g4_arena *arena, const g4_json *root, g4_halt *halt)
{
    g4_refs *r = g4_arena_alloc(arena, sizeof *r);
    if (r == NULL) return NULL;
    *r = (g4_refs) { .arena = arena, .root = root, .draft = g4_refs_draft(root) };
    const g4_json *id = g4_json_get(root, r->draft <= 4 ? "id" : "$id");
    const int has_id = g4_json_is(id, G4_JSON_STRING) && id->text_len > 0 && id->text[0] != '#';
    g4_refs_add_resource(r, root, has_id ? id->text : "", has_id ? id->text_len : 0, -1);
    if (!r->failed && r->n_resources == 0) g4_refs_add_resource(r, root, "", 0, -1); /* its address is too long */
    if (!r->failed) g4_refs_walk(r, halt);
    const size_t n = (size_t)r->n_referrers;
    if (!r->failed && !g4_sort(arena->a, r->referrers, n, sizeof *r->referrers, g4_referrer_compare, halt))
        r->failed = 1;
    if (!r->failed) return r;
    g4_refs_close(r);
    return NULL;
}

void g4_refs_close(g4_refs *r)
{
    if (r == NULL) return;
    g4_free(r->arena->a, r->resources);
    g4_free(r->arena->a, r->anchors);
    g4_free(r->arena->a, r->referrers);
    g4_free(r->arena->a, r->members);
    g4_free(r->arena->a, r->member_table.slots);
}

int g4_refs_dialect(const g4_refs *r) { return r->draft; }

/* ---- Finding ------------------------------------------------------------------------------------- */

/* A part of a JSON pointer, up to the next slash or the end, with ~0 ~1 and %XX resolved; returns its end. */
static size_t g4_pointer_part(const g4_json *pointer, size_t pos, char *name, size_t cap)
{
    const char *s = pointer->text;
    size_t n = 0;
    for (; pos < pointer->text_len && s[pos] != '/'; pos++) {
        char ch = s[pos];
        uint32_t byte;
        if (ch == '~' && pos + 1 < pointer->text_len) {
            ch = s[++pos] == '1' ? '/' : '~';
        } else if (ch == '%' && pointer->text_len - pos > 2 && g4_hex_read(s + pos + 1, 2, &byte)) {
            ch = (char)byte;
            pos += 2;
        }
        if (n < cap - 1) name[n++] = ch;
    }
    name[n] = '\0';
    return pos;
}

/* The first member of that name. */
static const g4_json *g4_refs_member(const g4_refs *r, const g4_json *object, const char *name)
{
    const size_t n = strlen(name);
    uint32_t at = 0;
    int32_t first = INT32_MAX;
    for (int32_t i; (i = g4_table_next(&r->member_table, g4_member_hash(object, name, n), &at)) >= 0;) {
        const g4_named_member *k = &r->members[i];
        if (k->object == object && k->member != NULL && k->member->key_len == n && memcmp(k->member->key, name, n) == 0)
            first = g4_min_int(first, i);
    }
    if (first != INT32_MAX) return r->members[first].member;
    at = 0;
    for (int32_t i; (i = g4_table_next(&r->member_table, g4_member_hash(object, NULL, 0), &at)) >= 0;)
        if (r->members[i].object == object && r->members[i].member == NULL) return NULL;
    return g4_json_get(object, name);
}

/* The element of a list whose index is written, or the member of that name; NULL: there is none. */
static const g4_json *g4_pointer_step(const g4_refs *r, const g4_json *v, const char *name)
{
    if (v->kind == G4_JSON_OBJECT) return g4_refs_member(r, v, name);
    if (v->kind != G4_JSON_ARRAY) return NULL;
    if (!g4_is_digit(name[0]) || strlen(name) > 6) return NULL;
    const g4_json *element = v->child;
    for (long i = strtol(name, NULL, 10); i > 0 && element != NULL; i--) element = element->next;
    return element;
}

static const g4_json *g4_refs_point(const g4_refs *r, const g4_json *from, const g4_json *ref, size_t pos)
{
    const g4_json *v = from;
    char part[1024];
    while (pos < ref->text_len && v != NULL) {
        pos = g4_pointer_part(ref, pos + 1, part, sizeof part);
        v = g4_pointer_step(r, v, part);
    }
    return v;
}

/* The anchor of that name, in the resource if it can be; a fragment without its #. */
static const g4_anchor *g4_refs_anchor(const g4_refs *r, const char *name, size_t n, int resource)
{
    const g4_anchor *any = NULL;
    for (int i = 0; i < r->n_anchors; i++) {
        const g4_json *own = r->anchors[i].name;
        const size_t hash = own->text[0] == '#';
        if (own->text_len - hash != n || memcmp(own->text + hash, name, n) != 0) continue;
        if (r->anchors[i].resource == resource) return &r->anchors[i];
        if (any == NULL) any = &r->anchors[i];
    }
    return any;
}

static int g4_refs_resource_of(const g4_refs *r, const g4_json *node)
{
    const g4_referrer key = { node, 0 };
    const g4_referrer *found =
        r->n_referrers == 0 ? NULL
                            : bsearch(&key, r->referrers, (size_t)r->n_referrers, sizeof key, g4_referrer_compare);
    return found != NULL ? found->resource : 0;
}

const g4_json *g4_refs_find(const g4_refs *r, const g4_json *referrer, const g4_json *ref)
{
    char uri[G4_REFS_MAX_URI];
    if (!g4_json_is(ref, G4_JSON_STRING)) return NULL;
    const int here = g4_refs_resource_of(r, referrer);
    const char *hash = memchr(ref->text, '#', ref->text_len);
    const size_t before = hash != NULL ? (size_t)(hash - ref->text) : ref->text_len;
    int resource = before == 0 ? here : -1;
    if (resource < 0 && g4_uri_resolve(uri, r->resources[here].uri, ref->text, before))
        for (int i = 0; i < r->n_resources && resource < 0; i++)
            if (strcmp(r->resources[i].uri, uri) == 0) resource = i;
    if (resource < 0) return NULL;
    const size_t pos = hash != NULL ? before + 1 : before;
    if (pos == ref->text_len) return r->resources[resource].node;
    if (ref->text[pos] != '/') {
        const g4_anchor *anchor = g4_refs_anchor(r, ref->text + pos, ref->text_len - pos, resource);
        return anchor != NULL ? anchor->node : NULL;
    }
    const g4_json *v = g4_refs_point(r, r->resources[resource].node, ref, pos);
    return v != NULL || resource == 0 ? v : g4_refs_point(r, r->root, ref, pos); /* as if it were the document's */
}

int g4_refs_is_ambiguous(const g4_refs *r, const g4_json *target)
{
    int n = 0;
    const g4_json *name = NULL;
    for (int i = 0; i < r->n_anchors; i++)
        if (r->anchors[i].is_dynamic && r->anchors[i].node == target) name = r->anchors[i].name;
    for (int i = 0; name != NULL && i < r->n_anchors; i++)
        n += r->anchors[i].is_dynamic && g4_json_equal(r->anchors[i].name, name);
    return n > 1;
}

/* ---- Places -------------------------------------------------------------------------------------- */

void g4_refs_path(const g4_refs *r, const g4_json *node, g4_buf *out)
{
    const g4_json *stack[G4_REFS_MAX_DEPTH];
    int depth = 0;
    const g4_json *v = r->root;
    while (v != node && v != NULL) {
        if (v->child != NULL && depth < G4_REFS_MAX_DEPTH) {
            stack[depth++] = v;
            v = v->child;
            continue;
        }
        while (v->next == NULL && depth > 0) v = stack[--depth];
        v = depth > 0 ? v->next : NULL;
    }
    if (v == NULL) return;
    for (int i = 1; i <= depth; i++) {
        const g4_json *step = i < depth ? stack[i] : node;
        if (step->key != NULL) {
            g4_buf_str(out, "/");
            g4_buf_add(out, step->key, step->key_len);
            continue;
        }
        int index = 0;
        for (const g4_json *k = stack[i - 1]->child; k != step && k != NULL; k = k->next) index++;
        g4_buf_fmt(out, "/%d", index);
    }
}
