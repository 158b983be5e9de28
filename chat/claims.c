/* claims.c - what a value must meet: schemas that it must be valid for, or must not be. A goal is a list of such
 * claims; equal goals are one, so that schemas that refer to themselves come to an end. Values without parts (null,
 * true, false, numbers, strings) are settled here: keywords become expressions, and allOf, anyOf, oneOf, not and if are
 * operations on them, exactly. So is what schemas say of the presence of members and nothing else: a formula. Objects
 * and arrays are shape.c's. What cannot be held is loosened: the value may then be anything as far as that keyword
 * goes. */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define G4_CLAIMS_MAX_DEPTH 120    /* of schemas applied in place, one within the other */
#define G4_CLAIMS_MAX_GOALS 50000  /* of a grammar */
#define G4_CLAIMS_MAX_PARTS 400000 /* expressions of a grammar, beyond which no more are made of schemas */
#define G4_CLAIMS_MAX_SPELLED 100  /* numbers of an enum that are held in all their spellings */
#define G4_CLAIMS_MAX_ONE_OF 200   /* branches of oneOf with values without parts, unless they are constants */
#define G4_NEED_MAX_DEPTH 400

static const g4_json g4_schema_false = { .kind = G4_JSON_FALSE };

static int g4_goal_add(g4_shaper *sh, g4_goal like);

/* ---- Opening, failing, loosening ----------------------------------------------------------------- */

int g4_shaper_stops(g4_shaper *sh)
{
    return sh->no_memory || sh->st != G4_OK || g4_regular_failed(sh->regular) || g4_ask(&sh->asker);
}

static int g4_shaper_was_told(const g4_shaper *sh, const g4_json *node, const char *keyword)
{
    for (int i = 0; i < sh->n_told; i++)
        if (sh->told[i] == node && strcmp(keyword, sh->told_of[i]) == 0) return 1;
    return 0;
}

static void g4_shaper_note_told(g4_shaper *sh, const g4_json *node, const char *keyword)
{
    if (sh->n_told == G4_SHAPER_MAX_TOLD) return;
    sh->told[sh->n_told] = node;
    sh->told_of[sh->n_told++] = keyword;
}

void g4_shaper_loosen(g4_shaper *sh, const g4_json *node, const char *keyword, const char *fmt, ...)
{
    char why[200], text[640];
    if (sh->st != G4_OK || sh->no_memory || sh->n_told == G4_SHAPER_MAX_TOLD) return;
    if ((!sh->options.strict && sh->options.warn == NULL) || g4_shaper_was_told(sh, node, keyword)) return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    g4_buf path = { .a = sh->a };
    g4_refs_path(sh->refs, node, &path);
    snprintf(text, sizeof text, "%s#%.300s%s%.60s: %s", sh->what, path.data == NULL ? "" : path.data,
             keyword[0] != '\0' ? "/" : "", keyword, why);
    g4_buf_free(&path);
    g4_shaper_note_told(sh, node, keyword);
    if (sh->options.strict)
        sh->st = g4_fail(sh->err, G4_ERR_UNSUPPORTED, "%s", text);
    else
        sh->options.warn(sh->options.user, text);
}

static g4_re g4_shaper_any_text(g4_shaper *sh, int written)
{
    g4_char_range all = { 0, 0x10ffff };
    const g4_class every = { .ranges = &all, .n = 1 };
    const g4_re one =
        written ? g4_re_class(sh->regular, &every, sh->spelling) : g4_re_any_char(sh->regular, sh->spelling);
    return g4_re_repeat(sh->regular, one, 0, -1);
}

int g4_shaper_open(g4_shaper *sh, g4_arena *arena, g4_regular *regular, const g4_json *root,
                   const g4_schema_options *opt, int is_call, const char *what, g4_halt *halt, g4_error *err)
{
    *sh = (g4_shaper) { .a = arena->a,
                        .arena = arena,
                        .regular = regular,
                        .asker = { .halt = halt },
                        .root = root,
                        .is_call = is_call,
                        .spelling = is_call ? G4_RAW : G4_ESCAPED,
                        .what = what,
                        .err = err };
    if (opt != NULL) sh->options = *opt;
    sh->refs = g4_refs_open(arena, root, halt);
    sh->no_memory = sh->refs == NULL;
    if (sh->no_memory) return 0;
    sh->any_text = g4_shaper_any_text(sh, 0);
    sh->written_text = g4_shaper_any_text(sh, 1);
    g4_need_open(sh);
    g4_shaper_name(sh, "", 0); /* so that there is one, also when memory runs out */
    g4_claim none = { &g4_schema_false, 0, 0 };
    g4_goal_add(sh, (g4_goal) { .claims = &none, .n = 1, .rule = -1 }); /* G4_GOAL_NONE */
    g4_goal_add(sh, (g4_goal) { .rule = -1 });                          /* G4_GOAL_ANY */
    return !sh->no_memory;
}

void g4_shaper_close(g4_shaper *sh)
{
    g4_refs_close(sh->refs);
    g4_free(sh->a, sh->infos);
    g4_free(sh->a, sh->goals);
    g4_free(sh->a, sh->names);
    g4_free(sh->a, sh->needs);
    g4_free(sh->a, sh->ranked);
    g4_free(sh->a, sh->seen);
    g4_free(sh->a, sh->info_table.slots);
    g4_free(sh->a, sh->goal_table.slots);
    g4_free(sh->a, sh->name_table.slots);
    g4_free(sh->a, sh->need_table.slots);
}

/* Element number i, of that hash, goes into a table of the shaper. */
static void g4_shaper_put(g4_shaper *sh, g4_hash_table *t, uint32_t hash, int32_t i)
{
    if (g4_table_reserve(t, sh->a, i + 1))
        g4_table_put(t, hash, i);
    else
        sh->no_memory = 1;
}

/* ---- Keywords ------------------------------------------------------------------------------------ */

typedef struct {
    const char *name;
    g4_keyword keyword;
} g4_keyword_name;

static int g4_keyword_compare(const void *key, const void *entry)
{
    return strcmp(key, ((const g4_keyword_name *)entry)->name);
}

g4_keyword g4_keyword_of(const g4_json *member)
{
    static const g4_keyword_name names[] = { /* in the order of strcmp */
                                             { "$dynamicRef", G4_KEY_REF },
                                             { "$recursiveRef", G4_KEY_REF },
                                             { "$ref", G4_KEY_REF },
                                             { "additionalItems", G4_KEY_ADDITIONAL_ITEMS },
                                             { "additionalProperties", G4_KEY_ADDITIONAL_PROPERTIES },
                                             { "allOf", G4_KEY_ALL_OF },
                                             { "anyOf", G4_KEY_ANY_OF },
                                             { "const", G4_KEY_CONST },
                                             { "contains", G4_KEY_CONTAINS },
                                             { "dependencies", G4_KEY_DEPENDENCIES },
                                             { "dependentRequired", G4_KEY_DEPENDENT_REQUIRED },
                                             { "dependentSchemas", G4_KEY_DEPENDENT_SCHEMAS },
                                             { "enum", G4_KEY_ENUM },
                                             { "exclusiveMaximum", G4_KEY_EXCLUSIVE_MAXIMUM },
                                             { "exclusiveMinimum", G4_KEY_EXCLUSIVE_MINIMUM },
                                             { "format", G4_KEY_FORMAT },
                                             { "if", G4_KEY_IF },
                                             { "items", G4_KEY_ITEMS },
                                             { "maxItems", G4_KEY_MAX_ITEMS },
                                             { "maxLength", G4_KEY_MAX_LENGTH },
                                             { "maxProperties", G4_KEY_MAX_PROPERTIES },
                                             { "maximum", G4_KEY_MAXIMUM },
                                             { "minItems", G4_KEY_MIN_ITEMS },
                                             { "minLength", G4_KEY_MIN_LENGTH },
                                             { "minProperties", G4_KEY_MIN_PROPERTIES },
                                             { "minimum", G4_KEY_MINIMUM },
                                             { "multipleOf", G4_KEY_MULTIPLE_OF },
                                             { "not", G4_KEY_NOT },
                                             { "nullable", G4_KEY_NULLABLE },
                                             { "oneOf", G4_KEY_ONE_OF },
                                             { "pattern", G4_KEY_PATTERN },
                                             { "patternProperties", G4_KEY_PATTERN_PROPERTIES },
                                             { "prefixItems", G4_KEY_PREFIX_ITEMS },
                                             { "properties", G4_KEY_PROPERTIES },
                                             { "propertyNames", G4_KEY_PROPERTY_NAMES },
                                             { "required", G4_KEY_REQUIRED },
                                             { "type", G4_KEY_TYPE },
                                             { "unevaluatedItems", G4_KEY_UNEVALUATED_ITEMS },
                                             { "unevaluatedProperties", G4_KEY_UNEVALUATED_PROPERTIES },
                                             { "uniqueItems", G4_KEY_UNIQUE_ITEMS }
    };
    if (member->key == NULL || strlen(member->key) != member->key_len) return G4_KEY_OTHER;
    const g4_keyword_name *found =
        bsearch(member->key, names, sizeof names / sizeof names[0], sizeof names[0], g4_keyword_compare);
    return found != NULL ? found->keyword : G4_KEY_OTHER;
}

/* ---- What is known of a schema ------------------------------------------------------------------- */

g4_schema_info *g4_shaper_info(g4_shaper *sh, const g4_json *node)
{
    const uint32_t hash = (uint32_t)g4_hash_mix(1, (uintptr_t)node);
    uint32_t at = 0;
    for (int32_t i; (i = g4_table_next(&sh->info_table, hash, &at)) >= 0;)
        if (sh->infos[i]->node == node) return sh->infos[i];
    g4_schema_info *info = g4_arena_alloc(sh->arena, sizeof *info);
    g4_schema_info **infos = g4_array_grow(sh->a, sh->infos, sh->n_infos, &sh->cap_infos, sizeof *infos);
    if (infos != NULL) sh->infos = infos;
    if (infos == NULL || info == NULL) {
        sh->no_memory = 1;
        sh->spare_info = (g4_schema_info) { .node = node };
        return &sh->spare_info;
    }
    *info = (g4_schema_info) { .node = node, .dialect = g4_refs_dialect(sh->refs) };
    if (node->kind == G4_JSON_OBJECT && g4_refs_dialect(sh->refs) <= 7) info->only = g4_json_get(node, "$ref");
    infos[sh->n_infos] = info;
    g4_shaper_put(sh, &sh->info_table, hash, sh->n_infos++);
    return info;
}

/* The first draft that has the keyword. */
static int g4_keyword_since(g4_keyword keyword)
{
    switch (keyword) {
    case G4_KEY_CONST:
    case G4_KEY_CONTAINS:
    case G4_KEY_PROPERTY_NAMES: return 6;
    case G4_KEY_IF: return 7;
    case G4_KEY_DEPENDENT_REQUIRED:
    case G4_KEY_DEPENDENT_SCHEMAS:
    case G4_KEY_UNEVALUATED_ITEMS:
    case G4_KEY_UNEVALUATED_PROPERTIES: return 2019;
    case G4_KEY_PREFIX_ITEMS: return 2020;
    default: return 0;
    }
}

const g4_json *g4_schema_member(const g4_schema_info *info, const g4_json *m)
{
    if (info->only != NULL) return m == NULL ? info->only : NULL;
    if (m != NULL)
        m = m->next;
    else if (info->node->kind == G4_JSON_OBJECT)
        m = info->node->child;
    while (m != NULL && info->dialect < 2020 && g4_keyword_since(g4_keyword_of(m)) > info->dialect) m = m->next;
    return m;
}

/* The only member of a schema that says something; NULL: there are others, or none, which *n tells. */
static const g4_json *g4_schema_single(const g4_schema_info *info, int *n)
{
    const g4_json *single = NULL;
    *n = 0;
    for (const g4_json *m = g4_schema_member(info, NULL); m != NULL && *n < 2; m = g4_schema_member(info, m)) {
        if (g4_keyword_of(m) == G4_KEY_OTHER) continue;
        single = m;
        ++*n;
    }
    return *n == 1 ? single : NULL;
}

const g4_json *g4_schema_target(g4_shaper *sh, const g4_json *s, const g4_json *ref)
{
    g4_schema_info *info = g4_shaper_info(sh, ref);
    if (!info->has_target) info->target = g4_refs_find(sh->refs, s, ref);
    info->has_target = 1;
    const g4_json *target = info->target;
    if (target == NULL)
        g4_shaper_loosen(sh, s, ref->key, "%.100s is not in the document: anything is allowed",
                         ref->kind == G4_JSON_STRING ? ref->text : "it");
    else if (ref->key[1] != 'r' && g4_refs_is_ambiguous(sh->refs, target)) {
        g4_shaper_loosen(sh, s, ref->key, "several schemas have this anchor: anything is allowed");
        target = NULL;
    } else if (strcmp(ref->key, "$recursiveRef") == 0 && target != sh->root) {
        g4_shaper_loosen(sh, s, ref->key, "is held at the root of the document only: anything is allowed");
        target = NULL;
    }
    return target;
}

/* A schema that is a reference, or one other schema, met or denied: *claim becomes that one, and 3 is returned. Else
 * what g4_claim_settle returns. */
static int g4_claim_hop(g4_shaper *sh, g4_claim *claim)
{
    const g4_json *s = claim->node;
    int n = 0;
    if (s->kind == G4_JSON_TRUE || s->kind == G4_JSON_FALSE) return (s->kind == G4_JSON_TRUE) != claim->is_denied;
    if (s->kind != G4_JSON_OBJECT) {
        g4_shaper_loosen(sh, s, "", "a schema must be an object, true or false: anything is allowed");
        return 1;
    }
    const g4_json *single = g4_schema_single(g4_shaper_info(sh, s), &n);
    if (n == 0) return !claim->is_denied;
    switch (single != NULL ? g4_keyword_of(single) : G4_KEY_OTHER) {
    case G4_KEY_REF:
        single = g4_schema_target(sh, s, single);
        if (single == NULL) return 1;
        break;
    case G4_KEY_NOT: claim->is_denied = !claim->is_denied; break;
    case G4_KEY_ALL_OF:
    case G4_KEY_ANY_OF:
    case G4_KEY_ONE_OF:
        if (single->kind != G4_JSON_ARRAY || single->child == NULL || single->child->next != NULL) return 2;
        single = single->child;
        break;
    default: return 2;
    }
    claim->node = single;
    return 3;
}

/* What comes of it is noted at all schemas on the way, so that each way is gone once. A way that leads back to itself
 * says nothing that could be met: Brent's algorithm finds it with one schema to compare with. */
int g4_claim_settle(g4_shaper *sh, g4_claim *claim)
{
    const g4_claim first = *claim;
    const g4_json *seen = NULL;
    int found = claim->is_value ? 2 : 3;
    for (uint64_t hops = 0, next = 0; found == 3 && !sh->no_memory; hops++) {
        const g4_schema_info *info = g4_shaper_info(sh, claim->node);
        if (info->has_settled[claim->is_denied]) {
            found = info->settled[claim->is_denied].found;
            *claim = info->settled[claim->is_denied].claim;
        } else if (claim->node == seen) {
            found = 0; /* it only ever refers to itself */
        } else {
            if (hops == next) {
                seen = claim->node;
                next = 2 * hops + 1;
            }
            found = g4_claim_hop(sh, claim);
        }
    }
    if (found == 3) return 0;
    for (g4_claim k = first; !k.is_value;) {
        g4_schema_info *info = g4_shaper_info(sh, k.node);
        if (info->has_settled[k.is_denied] || info == &sh->spare_info) break;
        info->has_settled[k.is_denied] = 1;
        info->settled[k.is_denied] = (g4_settled) { *claim, found };
        if (g4_claim_hop(sh, &k) != 3) break;
    }
    return found;
}

/* Of a claim that settled to anything. */
int g4_claim_is_loose(const g4_claim *claim)
{
    const g4_json *s = claim->node;
    int has_ref = 0;
    if (s->kind == G4_JSON_TRUE || s->kind == G4_JSON_FALSE) return 0;
    for (const g4_json *m = s->kind == G4_JSON_OBJECT ? s->child : NULL; m != NULL; m = m->next)
        has_ref |= g4_keyword_of(m) == G4_KEY_REF;
    return has_ref || s->kind != G4_JSON_OBJECT;
}

int g4_schema_count(g4_shaper *sh, const g4_json *s, const g4_json *m, int max)
{
    if (m->kind == G4_JSON_NUMBER && m->number >= 0 && m->number == floor(m->number))
        return m->number > max ? max : (int)m->number;
    g4_shaper_loosen(sh, s, m->key, "must be a non-negative integer: ignored");
    return -1;
}

/* ---- Types --------------------------------------------------------------------------------------- */

/* The tools of some hosts write type names in capitals. */
static int g4_is_type_name(const g4_json *v, const char *name)
{
    size_t i = 0;
    if (!g4_json_is(v, G4_JSON_STRING) || v->text_len != strlen(name)) return 0;
    while (i < v->text_len && (v->text[i] | 0x20) == name[i]) i++;
    return i == v->text_len;
}

static int g4_schema_type_bit(const g4_json *v)
{
    static const char *const names[] = { "null", "boolean", "integer", "number", "string", "array", "object" };
    for (int i = 0; i < 7; i++)
        if (g4_is_type_name(v, names[i])) return i == 3 ? G4_T_NUMBER | G4_T_INTEGER : 1 << i;
    return g4_is_type_name(v, "any") ? G4_T_ANY : 0;
}

/* The types that the keyword `type` names. */
static int g4_schema_type_bits(g4_shaper *sh, const g4_json *s, const g4_json *type)
{
    int types = 0, is_bad = 0;
    for (const g4_json *t = type->kind == G4_JSON_ARRAY ? type->child : type; t != NULL;
         t = type->kind == G4_JSON_ARRAY ? t->next : NULL) {
        const int bit = g4_schema_type_bit(t);
        is_bad |= bit == 0;
        types |= bit;
    }
    if (!is_bad) return types;
    g4_shaper_loosen(sh, s, "type",
                     "must be null, boolean, integer, number, string, array or object, or a list of these: ignored");
    return G4_T_ANY;
}

int g4_value_types(const g4_json *v)
{
    static const int bits[] = { [G4_JSON_NULL] = G4_T_NULL,     [G4_JSON_FALSE] = G4_T_BOOLEAN,
                                [G4_JSON_TRUE] = G4_T_BOOLEAN,  [G4_JSON_NUMBER] = G4_T_NUMBER | G4_T_INTEGER,
                                [G4_JSON_STRING] = G4_T_STRING, [G4_JSON_ARRAY] = G4_T_ARRAY,
                                [G4_JSON_OBJECT] = G4_T_OBJECT };
    return bits[v->kind];
}

static int g4_is_nullable(const g4_json *s)
{
    return s->kind == G4_JSON_OBJECT && g4_json_is(g4_json_get(s, "nullable"), G4_JSON_TRUE);
}

static int g4_list_types(g4_shaper *sh, const g4_json *list, int is_any)
{
    int types = is_any ? 0 : G4_T_ANY;
    for (const g4_json *b = list->child; b != NULL && !g4_shaper_stops(sh); b = b->next)
        types = is_any ? types | g4_schema_types(sh, b) : types & g4_schema_types(sh, b);
    return types;
}

static int g4_member_types(g4_shaper *sh, const g4_json *s, const g4_json *m)
{
    const int is_list = m->kind == G4_JSON_ARRAY && m->child != NULL;
    int types = 0;
    const g4_json *target;
    switch (g4_keyword_of(m)) {
    case G4_KEY_TYPE: return g4_schema_type_bits(sh, s, m);
    case G4_KEY_CONST: return g4_value_types(m);
    case G4_KEY_ENUM:
        for (const g4_json *v = is_list ? m->child : NULL; v != NULL; v = v->next) types |= g4_value_types(v);
        return m->kind == G4_JSON_ARRAY ? types : G4_T_ANY;
    case G4_KEY_ALL_OF: return is_list ? g4_list_types(sh, m, 0) : G4_T_ANY;
    case G4_KEY_ANY_OF:
    case G4_KEY_ONE_OF: return is_list ? g4_list_types(sh, m, 1) : G4_T_ANY;
    case G4_KEY_REF:
        target = g4_schema_target(sh, s, m);
        return target != NULL ? g4_schema_types(sh, target) : G4_T_ANY;
    default: return G4_T_ANY;
    }
}

int g4_schema_types(g4_shaper *sh, const g4_json *s)
{
    g4_claim claim = { s, 0, 0 };
    const int found = g4_claim_settle(sh, &claim);
    if (found != 2 || claim.is_denied) return found == 0 ? 0 : G4_T_ANY;
    s = claim.node;
    g4_schema_info *info = g4_shaper_info(sh, s);
    if (info->has_types) return info->types;
    info->has_types = 1;
    info->types = G4_T_ANY; /* for schemas that refer to themselves */
    if (sh->depth++ < G4_CLAIMS_MAX_DEPTH) {
        int types = G4_T_ANY;
        for (const g4_json *m = g4_schema_member(info, NULL); m != NULL && types != 0; m = g4_schema_member(info, m))
            types &= g4_member_types(sh, s, m);
        info->types = g4_is_nullable(s) ? types | G4_T_NULL : types;
    }
    sh->depth--;
    return info->types;
}

int g4_claim_may(g4_shaper *sh, g4_claim claim, int type)
{
    const int found = g4_claim_settle(sh, &claim);
    if (found != 2) return found;
    if (claim.is_denied) return 1;
    return ((claim.is_value ? g4_value_types(claim.node) : g4_schema_types(sh, claim.node)) & type) != 0;
}

/* ---- Expressions of keywords --------------------------------------------------------------------- */

static g4_re g4_any_and(g4_shaper *sh, g4_re a, g4_re b)
{
    return a == G4_RE_ANY ? b : b == G4_RE_ANY ? a : g4_re_and(sh->regular, a, b);
}

static g4_re g4_any_or(g4_shaper *sh, g4_re a, g4_re b)
{
    return a == G4_RE_ANY || b == G4_RE_ANY ? G4_RE_ANY : g4_re_or(sh->regular, a, b);
}

g4_re g4_scalars_text(g4_shaper *sh, g4_re string) { return string == G4_RE_ANY ? sh->any_text : string; }

/* All strings but those. */
static g4_re g4_text_not(g4_shaper *sh, g4_re x)
{
    if (x == G4_RE_ANY) return G4_RE_NONE;
    if (x == G4_RE_NONE) return G4_RE_ANY;
    return g4_re_and(sh->regular, sh->written_text, g4_re_not(sh->regular, x));
}

/* Append a string as it stands between its quotes, in the spelling that expressions are made of: U+007F as it is. */
static void g4_write_text(g4_shaper *sh, g4_buf *out, const char *s, size_t n)
{
    while (n > 0) {
        const char *del = sh->is_call ? NULL : memchr(s, 0x7f, n);
        const size_t size = del != NULL ? (size_t)(del - s) : n;
        g4_buf quoted = { .a = sh->a };
        if (!sh->is_call) g4_json_quote(&quoted, s, size);
        if (sh->is_call)
            g4_buf_add(out, s, size);
        else if (quoted.len >= 2)
            g4_buf_add(out, quoted.data + 1, quoted.len - 2);
        if (del != NULL) g4_buf_add(out, del, 1);
        sh->no_memory |= quoted.failed || out->failed;
        g4_buf_free(&quoted);
        s += size + (del != NULL);
        n -= size + (del != NULL);
    }
}

/* A string as it stands between its quotes. */
static g4_re g4_written(g4_shaper *sh, const char *s, size_t n)
{
    g4_buf b = { .a = sh->a };
    g4_write_text(sh, &b, s, n);
    const g4_re re = g4_re_text(sh->regular, b.data == NULL ? "" : b.data, b.len);
    g4_buf_free(&b);
    return re;
}

/* Any of n > 0 strings, as a tree of words; the texts become what is written for them, and mean nothing behind it. */
static g4_re g4_written_words(g4_shaper *sh, g4_text *texts, int n)
{
    g4_buf all = { .a = sh->a };
    size_t *ends = g4_alloc(sh->a, (size_t)n, sizeof *ends);
    g4_re re = G4_RE_NONE;
    sh->no_memory |= ends == NULL;
    for (int i = 0; i < n && !g4_shaper_stops(sh); i++) {
        g4_write_text(sh, &all, texts[i].s, texts[i].n);
        ends[i] = all.len;
    }
    for (int i = 0; i < n && !g4_shaper_stops(sh); i++) {
        const size_t start = i > 0 ? ends[i - 1] : 0;
        texts[i] = (g4_text) { all.data == NULL ? "" : all.data + start, ends[i] - start };
    }
    if (!g4_shaper_stops(sh)) re = g4_re_one_of(sh->regular, texts, (size_t)n);
    g4_free(sh->a, ends);
    g4_buf_free(&all);
    return re;
}

static g4_re g4_lengths(g4_shaper *sh, int min, int max)
{
    if (max >= 0 && max < min) return G4_RE_NONE;
    if (min <= 0 && max < 0) return G4_RE_ANY;
    return g4_re_repeat(sh->regular, g4_re_any_char(sh->regular, sh->spelling), min, max);
}

/* The texts that contain a match. G4_RE_LOOSE: it cannot be held, which is said. Each is read once. */
static g4_re g4_shaper_pattern(g4_shaper *sh, const g4_json *s, const char *keyword, const g4_json *where,
                               const char *text, size_t n)
{
    g4_schema_info *info = g4_shaper_info(sh, where);
    g4_error err = { 0 };
    if (info->has_pattern) return info->pattern;
    const g4_status st = g4_pattern_re(sh->regular, &info->pattern, text, n, sh->spelling, "", &err);
    if (st != G4_OK && st != G4_ERR_FORMAT && st != G4_ERR_UNSUPPORTED) sh->no_memory = 1;
    if (st != G4_OK) {
        const char *why = strncmp(err.message, ": ", 2) == 0 ? err.message + 2 : err.message;
        g4_shaper_loosen(sh, s, keyword, "%.120s: not held", why);
        info->pattern = G4_RE_LOOSE;
    }
    info->has_pattern = 1;
    return info->pattern;
}

static g4_re g4_keyword_pattern(g4_shaper *sh, const g4_json *s, const g4_json *m)
{
    if (m->kind == G4_JSON_STRING) return g4_shaper_pattern(sh, s, m->key, m, m->text, m->text_len);
    g4_shaper_loosen(sh, s, m->key, "must be a string: ignored");
    return G4_RE_LOOSE;
}

static g4_re g4_keyword_format(g4_shaper *sh, const g4_json *s, const g4_json *m, int denied)
{
    g4_re re = G4_RE_NONE;
    if (m->kind != G4_JSON_STRING) {
        g4_shaper_loosen(sh, s, "format", "must be a string: ignored");
        return G4_RE_LOOSE;
    }
    const g4_format_kind kind = g4_format_re(sh->regular, m->text, m->text_len, sh->spelling, &re);
    if (kind == G4_FORMAT_LOOSE)
        g4_shaper_loosen(sh, s, "format", "%.60s is held more loosely than it is defined", m->text);
    return kind == G4_FORMAT_UNKNOWN || (kind == G4_FORMAT_LOOSE && denied) ? G4_RE_LOOSE : re;
}

/* What the keyword says of strings; denied: what strings break it. */
static g4_re g4_string_keyword(g4_shaper *sh, const g4_json *s, const g4_json *m, g4_keyword keyword, int denied)
{
    int n;
    g4_re re;
    switch (keyword) {
    case G4_KEY_MIN_LENGTH:
        n = g4_schema_count(sh, s, m, G4_SHAPER_MAX_LENGTH);
        if (n < 0) return G4_RE_ANY;
        return denied ? n == 0 ? G4_RE_NONE : g4_lengths(sh, 0, n - 1) : g4_lengths(sh, n, -1);
    case G4_KEY_MAX_LENGTH:
        n = g4_schema_count(sh, s, m, G4_SHAPER_MAX_LENGTH);
        if (n < 0) return G4_RE_ANY;
        return denied ? g4_lengths(sh, n + 1, -1) : g4_lengths(sh, 0, n);
    case G4_KEY_PATTERN: re = g4_keyword_pattern(sh, s, m); break;
    default: re = g4_keyword_format(sh, s, m, denied); break;
    }
    return re == G4_RE_LOOSE ? G4_RE_ANY : denied ? g4_text_not(sh, re) : re;
}

/* ---- Numbers ------------------------------------------------------------------------------------- */

/* The numbers that x has not. x may have one of them in some of its spellings only. */
static g4_re g4_number_not(g4_shaper *sh, g4_re x)
{
    return g4_re_and(sh->regular, g4_re_plain_numbers(sh->regular), g4_re_not(sh->regular, x));
}

/* The bound that a keyword gives, draft 4's exclusive ones too; 0: none. */
static int g4_schema_bound(g4_shaper *sh, const g4_json *s, const char *plain, const char *exclusive, int is_exclusive,
                           g4_number_bound *out)
{
    const g4_json *v = g4_json_get(s, is_exclusive ? exclusive : plain);
    if (v == NULL || v->kind == G4_JSON_TRUE || v->kind == G4_JSON_FALSE) return 0;
    if (v->kind != G4_JSON_NUMBER || !g4_number_read(&out->value, v->text, v->text_len)) {
        g4_shaper_loosen(sh, s, v->key, "must be a number of not too many digits: ignored");
        return 0;
    }
    out->is_exclusive = is_exclusive || g4_json_is(g4_json_get(s, exclusive), G4_JSON_TRUE);
    return 1;
}

/* The tighter one of minimum and exclusiveMinimum, or of the other pair; 0: neither is given. */
static int g4_schema_bounds(g4_shaper *sh, const g4_json *s, int is_upper, g4_number_bound *out)
{
    const char *plain = is_upper ? "maximum" : "minimum",
               *exclusive = is_upper ? "exclusiveMaximum" : "exclusiveMinimum";
    g4_number_bound other;
    const int has_plain = g4_schema_bound(sh, s, plain, exclusive, 0, out);
    const int has_exclusive = g4_schema_bound(sh, s, plain, exclusive, 1, &other);
    if (!has_exclusive) return has_plain;
    const int order = has_plain ? g4_number_compare(&other.value, &out->value) : 0;
    if (!has_plain || (is_upper ? order <= 0 : order >= 0)) *out = other;
    return 1;
}

/* G4_RE_LOOSE: it cannot be held. */
static g4_re g4_schema_multiples(g4_shaper *sh, const g4_json *s, const g4_json *multiple)
{
    g4_number of;
    g4_re re;
    const int is_number = multiple->kind == G4_JSON_NUMBER && g4_number_read(&of, multiple->text, multiple->text_len);
    if (multiple->kind != G4_JSON_NUMBER || multiple->text[0] == '-' || (is_number && of.n == 0)) {
        g4_shaper_loosen(sh, s, multiple->key, "must be a number above 0: ignored");
        return G4_RE_LOOSE;
    }
    if (is_number && of.n == 1 && of.digits[0] == '1' && of.point == 1) return g4_re_any_integer(sh->regular, 1);
    if (is_number && g4_re_multiples(sh->regular, &re, &of)) return re;
    g4_shaper_loosen(sh, s, multiple->key, "%.40s has too many digits: not held", multiple->text);
    return G4_RE_LOOSE;
}

/* What the keywords of numbers let through, all of them together. */
static g4_re g4_schema_numbers(g4_shaper *sh, const g4_json *s)
{
    const g4_json *multiple = g4_json_get(s, "multipleOf"), *type = g4_json_get(s, "type");
    g4_number_bound low, high;
    const int has_low = g4_schema_bounds(sh, s, 0, &low), has_high = g4_schema_bounds(sh, s, 1, &high);
    const int is_whole =
        type != NULL && (g4_schema_type_bits(sh, s, type) & (G4_T_NUMBER | G4_T_INTEGER)) == G4_T_INTEGER;
    g4_re re = G4_RE_ANY;
    if (has_low || has_high) re = g4_re_numbers(sh->regular, has_low ? &low : NULL, has_high ? &high : NULL, is_whole);
    const g4_re multiples = multiple != NULL ? g4_schema_multiples(sh, s, multiple) : G4_RE_LOOSE;
    return multiples == G4_RE_LOOSE ? re : g4_any_and(sh, re, multiples);
}

/* The numbers that break one of those keywords. */
static g4_re g4_number_keyword_denied(g4_shaper *sh, const g4_json *s, const g4_json *m)
{
    const g4_keyword keyword = g4_keyword_of(m);
    g4_number_bound bound;
    if (keyword == G4_KEY_MULTIPLE_OF) {
        const g4_re re = g4_schema_multiples(sh, s, m);
        return re == G4_RE_LOOSE ? G4_RE_ANY : g4_number_not(sh, re);
    }
    const int is_upper = keyword == G4_KEY_MAXIMUM || keyword == G4_KEY_EXCLUSIVE_MAXIMUM;
    const int is_exclusive = keyword == G4_KEY_EXCLUSIVE_MINIMUM || keyword == G4_KEY_EXCLUSIVE_MAXIMUM;
    if (m->kind == G4_JSON_TRUE || m->kind == G4_JSON_FALSE) return G4_RE_NONE; /* draft 4: it belongs to the bound */
    if (!g4_schema_bound(sh, s, is_upper ? "maximum" : "minimum", is_upper ? "exclusiveMaximum" : "exclusiveMinimum",
                         is_exclusive, &bound))
        return G4_RE_ANY;
    bound.is_exclusive = !bound.is_exclusive;
    return g4_re_numbers(sh->regular, is_upper ? &bound : NULL, is_upper ? NULL : &bound, 0);
}

/* All spellings of the number; as it is written, when it has too many digits. */
static g4_re g4_number_equal(g4_shaper *sh, const g4_json *v)
{
    g4_number value;
    if (!g4_number_read(&value, v->text, v->text_len)) return g4_re_text(sh->regular, v->text, v->text_len);
    return g4_re_equal_number(sh->regular, &value);
}

/* ---- Constants ----------------------------------------------------------------------------------- */

/* The values of a constant, as far as it has no parts; denied: all others. */
static g4_scalars g4_constant_scalars(g4_shaper *sh, const g4_json *v, int denied)
{
    g4_scalars out = { .number = G4_RE_NONE, .string = G4_RE_NONE };
    out.null = v->kind == G4_JSON_NULL;
    out.no = v->kind == G4_JSON_FALSE;
    out.yes = v->kind == G4_JSON_TRUE;
    if (v->kind == G4_JSON_NUMBER) out.number = g4_number_equal(sh, v);
    if (v->kind == G4_JSON_STRING) out.string = g4_written(sh, v->text, v->text_len);
    if (!denied) return out;
    out.null = !out.null;
    out.no = !out.no;
    out.yes = !out.yes;
    out.number = v->kind == G4_JSON_NUMBER ? g4_number_not(sh, out.number) : G4_RE_ANY;
    out.string = g4_text_not(sh, out.string);
    return out;
}

static const g4_scalars g4_no_scalars = { .number = G4_RE_NONE, .string = G4_RE_NONE };
static const g4_scalars g4_all_scalars = { 1, 1, 1, G4_RE_ANY, G4_RE_ANY };

static g4_scalars g4_scalars_and(g4_shaper *sh, g4_scalars a, g4_scalars b)
{
    a.null &= b.null;
    a.no &= b.no;
    a.yes &= b.yes;
    a.number = g4_any_and(sh, a.number, b.number);
    a.string = g4_any_and(sh, a.string, b.string);
    return a;
}

static g4_scalars g4_scalars_or(g4_shaper *sh, g4_scalars a, g4_scalars b)
{
    a.null |= b.null;
    a.no |= b.no;
    a.yes |= b.yes;
    a.number = g4_any_or(sh, a.number, b.number);
    a.string = g4_any_or(sh, a.string, b.string);
    return a;
}

typedef struct { /* constants */
    const g4_json **all;
    int n, cap;
} g4_values;

static int g4_values_add(g4_shaper *sh, g4_values *k, const g4_json *v)
{
    const g4_json **all = g4_array_grow(sh->a, k->all, k->n, &k->cap, sizeof *all);
    sh->no_memory |= all == NULL;
    if (all == NULL) return 0;
    k->all = all;
    all[k->n++] = v;
    return 1;
}

/* The numbers among many values, whole ones or others, as a tree of what is written for them: each is as cheap as a
 * word, but has no exponent. */
static g4_re g4_values_written(g4_shaper *sh, const g4_values *k, int are_whole)
{
    g4_buf all = { .a = sh->a };
    g4_text *texts = g4_alloc(sh->a, (size_t)k->n + 1, sizeof *texts);
    size_t n = 0, start = 0;
    sh->no_memory |= texts == NULL;
    for (int i = 0; i < k->n && !g4_shaper_stops(sh); i++) {
        g4_number value;
        if (k->all[i]->kind != G4_JSON_NUMBER || !g4_number_read(&value, k->all[i]->text, k->all[i]->text_len))
            continue;
        if (g4_number_is_whole(&value) != are_whole) continue;
        g4_number_write(&all, &value);
        texts[n++].n = all.len - start;
        start = all.len;
    }
    sh->no_memory |= all.failed;
    start = 0;
    for (size_t i = 0; i < n && !sh->no_memory; i++) {
        texts[i].s = all.data + start;
        start += texts[i].n;
    }
    const g4_re re = sh->no_memory ? G4_RE_NONE : g4_re_written_numbers(sh->regular, texts, n, are_whole);
    g4_free(sh->a, texts);
    g4_buf_free(&all);
    return re;
}

/* Many numbers of a list of values. Those of too many digits stay as they are. */
static g4_re g4_values_numbers(g4_shaper *sh, const g4_values *k)
{
    g4_re re = g4_re_or(sh->regular, g4_values_written(sh, k, 1), g4_values_written(sh, k, 0));
    for (int i = 0; i < k->n && !g4_shaper_stops(sh); i++) {
        g4_number value;
        const g4_json *v = k->all[i];
        if (v->kind != G4_JSON_NUMBER) continue;
        const int is_read = g4_number_read(&value, v->text, v->text_len);
        if (!is_read || value.n == 0) re = g4_re_or(sh->regular, re, g4_number_equal(sh, v));
    }
    return re;
}

/* All strings of a list of values as a tree of words, and all other values without parts. */
static g4_scalars g4_values_scalars(g4_shaper *sh, const g4_values *values, int denied)
{
    g4_scalars out = g4_no_scalars;
    int n_numbers = 0, k = 0;
    for (int i = 0; i < values->n; i++) n_numbers += values->all[i]->kind == G4_JSON_NUMBER;
    const int are_many = n_numbers > G4_CLAIMS_MAX_SPELLED;
    g4_text *texts = g4_alloc(sh->a, (size_t)values->n + 1, sizeof *texts);
    sh->no_memory |= texts == NULL;
    for (int i = 0; i < values->n && texts != NULL && !g4_shaper_stops(sh); i++) {
        const g4_json *v = values->all[i];
        if (v->kind == G4_JSON_STRING)
            texts[k++] = (g4_text) { v->text, v->text_len };
        else if (v->kind != G4_JSON_ARRAY && v->kind != G4_JSON_OBJECT && !(are_many && v->kind == G4_JSON_NUMBER))
            out = g4_scalars_or(sh, out, g4_constant_scalars(sh, v, 0));
    }
    if (k > 0) out.string = g4_written_words(sh, texts, k);
    if (are_many) out.number = g4_values_numbers(sh, values);
    g4_free(sh->a, texts);
    if (!denied) return out;
    out.null = !out.null;
    out.no = !out.no;
    out.yes = !out.yes;
    out.number = out.number == G4_RE_NONE ? G4_RE_ANY : g4_number_not(sh, out.number);
    out.string = g4_text_not(sh, out.string);
    return out;
}

static g4_scalars g4_enum_scalars(g4_shaper *sh, const g4_json *list, int denied)
{
    g4_values values = { NULL, 0, 0 };
    for (const g4_json *v = list->child; v != NULL && g4_values_add(sh, &values, v); v = v->next) {
    }
    const g4_scalars out = g4_values_scalars(sh, &values, denied);
    g4_free(sh->a, values.all);
    return out;
}

/* ---- Values without parts ------------------------------------------------------------------------ */

static g4_scalars g4_schema_scalars(g4_shaper *sh, const g4_json *s, int denied);
static g4_scalars g4_list_scalars(g4_shaper *sh, const g4_json *list, int is_all, int denied);

/* By kind and value, numbers exactly. */
static int g4_values_compare(const void *pa, const void *pb)
{
    const g4_json *a = *(const g4_json *const *)pa, *b = *(const g4_json *const *)pb;
    g4_number x, y;
    if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
    if (a->kind == G4_JSON_NUMBER && g4_number_read(&x, a->text, a->text_len) &&
        g4_number_read(&y, b->text, b->text_len))
        return g4_number_compare(&x, &y);
    if (a->kind == G4_JSON_NUMBER && a->number != b->number) return a->number < b->number ? -1 : 1;
    if (a->kind != G4_JSON_STRING && a->kind != G4_JSON_NUMBER) return 0;
    const size_t n = a->text_len < b->text_len ? a->text_len : b->text_len;
    const int order = n > 0 ? memcmp(a->text, b->text, n) : 0;
    return order != 0 ? order : (a->text_len > b->text_len) - (a->text_len < b->text_len);
}

/* The one value without parts that is valid for a schema which says nothing else; NULL: it says something else. */
static const g4_json *g4_schema_constant(g4_shaper *sh, const g4_json *schema)
{
    g4_claim claim = { schema, 0, 0 };
    int n = 0;
    if (g4_claim_settle(sh, &claim) != 2 || claim.is_denied) return NULL;
    const g4_json *single = g4_schema_single(g4_shaper_info(sh, claim.node), &n);
    const int is_constant = single != NULL && g4_keyword_of(single) == G4_KEY_CONST;
    return is_constant && single->kind != G4_JSON_ARRAY && single->kind != G4_JSON_OBJECT ? single : NULL;
}

/* oneOf of constants is an enum of those that stand there once. 0: they are not. */
static int g4_one_of_constants(g4_shaper *sh, const g4_json *list, g4_values *out)
{
    int kept = 0;
    for (const g4_json *b = list->child; b != NULL && !g4_shaper_stops(sh); b = b->next) {
        const g4_json *v = g4_schema_constant(sh, b);
        if (v == NULL || !g4_values_add(sh, out, v)) return 0;
    }
    if (!g4_sort(sh->a, out->all, (size_t)out->n, sizeof *out->all, g4_values_compare, sh->asker.halt)) return 0;
    for (int i = 0, next; i < out->n; i = next) {
        for (next = i + 1; next < out->n && g4_values_compare(&out->all[i], &out->all[next]) == 0;) next++;
        if (next == i + 1) out->all[kept++] = out->all[i];
    }
    out->n = kept;
    return 1;
}

/* Exactly one of the branches; denied: none, or more than one. */
static g4_scalars g4_one_of_scalars(g4_shaper *sh, const g4_json *list, int denied)
{
    int n = 0;
    g4_values values = { NULL, 0, 0 };
    const int are_constants = g4_one_of_constants(sh, list, &values);
    const g4_scalars all = are_constants ? g4_values_scalars(sh, &values, denied) : g4_no_scalars;
    g4_free(sh->a, values.all);
    if (are_constants) return all;
    for (const g4_json *b = list->child; b != NULL && !g4_shaper_stops(sh); b = b->next) {
        const g4_scalars is = g4_schema_scalars(sh, b, 0);
        n += (is.number != G4_RE_NONE && is.number != G4_RE_ANY) || (is.string != G4_RE_NONE && is.string != G4_RE_ANY);
    }
    if (n > G4_CLAIMS_MAX_ONE_OF) {
        g4_shaper_loosen(sh, list, "", "more than %d branches: a value may be valid for several", G4_CLAIMS_MAX_ONE_OF);
        return denied ? g4_all_scalars : g4_list_scalars(sh, list, 0, 0);
    }
    g4_scalars none = g4_all_scalars, one = g4_no_scalars, more = g4_no_scalars;
    for (const g4_json *b = list->child; b != NULL && !g4_shaper_stops(sh); b = b->next) {
        const g4_scalars is = g4_schema_scalars(sh, b, 0), is_not = g4_schema_scalars(sh, b, 1);
        if (denied) more = g4_scalars_or(sh, more, g4_scalars_and(sh, one, is));
        one = g4_scalars_or(sh, g4_scalars_and(sh, one, is_not), g4_scalars_and(sh, none, is));
        none = g4_scalars_and(sh, none, is_not);
    }
    return denied ? g4_scalars_or(sh, none, more) : one;
}

/* allOf, or anyOf: the one is the other when both the whole and its branches are denied. Joined in pairs, pairs of
 * pairs and so on, so that what many branches make is not written anew with each of them. */
static g4_scalars g4_list_scalars(g4_shaper *sh, const g4_json *list, int is_all, int denied)
{
    g4_scalars trees[32], out = is_all ? g4_all_scalars : g4_no_scalars; /* trees[k]: of 2^k, where bit k of n is set */
    uint32_t n = 0;
    for (const g4_json *b = list->child; b != NULL && !g4_shaper_stops(sh); b = b->next, n++) {
        g4_scalars tree = g4_schema_scalars(sh, b, denied);
        int k = 0;
        for (; n >> k & 1; k++) tree = is_all ? g4_scalars_and(sh, trees[k], tree) : g4_scalars_or(sh, trees[k], tree);
        trees[k] = tree;
    }
    for (int k = 31; k >= 0; k--)
        if (n >> k & 1) out = is_all ? g4_scalars_and(sh, out, trees[k]) : g4_scalars_or(sh, out, trees[k]);
    return out;
}

/* (if and then) or (not if and else); denied: the same of what is denied of then and else. */
static g4_scalars g4_if_scalars(g4_shaper *sh, const g4_json *s, const g4_json *condition, int denied)
{
    const g4_json *then = g4_json_get(s, "then"), *other = g4_json_get(s, "else");
    const g4_scalars missing = denied ? g4_no_scalars : g4_all_scalars;
    if (then == NULL && other == NULL) return missing;
    const g4_scalars a = then != NULL ? g4_schema_scalars(sh, then, denied) : missing;
    const g4_scalars b = other != NULL ? g4_schema_scalars(sh, other, denied) : missing;
    return g4_scalars_or(sh, g4_scalars_and(sh, g4_schema_scalars(sh, condition, 0), a),
                         g4_scalars_and(sh, g4_schema_scalars(sh, condition, 1), b));
}

static g4_scalars g4_type_scalars(g4_shaper *sh, const g4_json *s, const g4_json *type, int denied)
{
    const int types = g4_schema_type_bits(sh, s, type);
    g4_scalars out = { .null = (types & G4_T_NULL) != 0, .number = G4_RE_NONE, .string = G4_RE_NONE };
    out.no = out.yes = (types & G4_T_BOOLEAN) != 0;
    if (types & G4_T_NUMBER)
        out.number = G4_RE_ANY;
    else if (types & G4_T_INTEGER)
        out.number = g4_re_any_integer(sh->regular, g4_refs_dialect(sh->refs) >= 6); /* draft 4: 1.0 is none */
    if (types & G4_T_STRING) out.string = G4_RE_ANY;
    if (!denied || types == G4_T_ANY) return out;
    out.null = !out.null;
    out.no = out.yes = !out.yes;
    out.number = types & G4_T_NUMBER ? G4_RE_NONE : types & G4_T_INTEGER ? g4_number_not(sh, out.number) : G4_RE_ANY;
    out.string = types & G4_T_STRING ? G4_RE_NONE : G4_RE_ANY;
    return out;
}

/* What one keyword lets through; denied: what breaks it. */
static g4_scalars g4_keyword_scalars(g4_shaper *sh, const g4_json *s, const g4_json *m, int denied)
{
    g4_scalars out = denied ? g4_no_scalars : g4_all_scalars;
    const g4_keyword keyword = g4_keyword_of(m);
    const g4_json *target;
    switch (keyword) {
    case G4_KEY_TYPE: return g4_type_scalars(sh, s, m, denied);
    case G4_KEY_CONST: return g4_constant_scalars(sh, m, denied);
    case G4_KEY_REF:
        target = g4_schema_target(sh, s, m);
        return target != NULL ? g4_schema_scalars(sh, target, denied) : g4_all_scalars;
    case G4_KEY_NOT: return g4_schema_scalars(sh, m, !denied);
    case G4_KEY_IF: return g4_if_scalars(sh, s, m, denied);
    case G4_KEY_MIN_LENGTH:
    case G4_KEY_MAX_LENGTH:
    case G4_KEY_PATTERN:
    case G4_KEY_FORMAT: out.string = g4_string_keyword(sh, s, m, keyword, denied); return out;
    case G4_KEY_MINIMUM:
    case G4_KEY_MAXIMUM:
    case G4_KEY_EXCLUSIVE_MINIMUM:
    case G4_KEY_EXCLUSIVE_MAXIMUM:
    case G4_KEY_MULTIPLE_OF:
        if (denied) out.number = g4_number_keyword_denied(sh, s, m);
        return out; /* met, they are one expression: g4_schema_numbers */
    case G4_KEY_ENUM:
    case G4_KEY_ALL_OF:
    case G4_KEY_ANY_OF:
    case G4_KEY_ONE_OF: break;
    default: return out;
    }
    if (m->kind != G4_JSON_ARRAY) {
        g4_shaper_loosen(sh, s, m->key, "must be a list: ignored");
        return g4_all_scalars;
    }
    if (keyword == G4_KEY_ENUM) return g4_enum_scalars(sh, m, denied);
    if (keyword == G4_KEY_ONE_OF) return g4_one_of_scalars(sh, m, denied);
    return g4_list_scalars(sh, m, (keyword == G4_KEY_ALL_OF) != denied, denied);
}

static g4_scalars g4_object_schema_scalars(g4_shaper *sh, const g4_json *s, int denied)
{
    const g4_schema_info *info = g4_shaper_info(sh, s);
    g4_scalars out = denied ? g4_no_scalars : g4_all_scalars;
    for (const g4_json *m = g4_schema_member(info, NULL); m != NULL && !g4_shaper_stops(sh);
         m = g4_schema_member(info, m)) {
        if (g4_keyword_of(m) == G4_KEY_OTHER) continue;
        const g4_scalars next = g4_keyword_scalars(sh, s, m, denied);
        out = denied ? g4_scalars_or(sh, out, next) : g4_scalars_and(sh, out, next);
    }
    if (!denied && info->only == NULL && out.number != G4_RE_NONE)
        out.number = g4_any_and(sh, out.number, g4_schema_numbers(sh, s));
    if (info->only == NULL && g4_is_nullable(s)) out.null = !denied;
    return out;
}

/* A schema that refers to itself before it says anything lets nothing through. */
static g4_scalars g4_schema_scalars(g4_shaper *sh, const g4_json *s, int denied)
{
    g4_claim claim = { s, 0, (uint8_t)denied };
    const int found = g4_claim_settle(sh, &claim);
    if (found != 2) return found == 1 ? g4_all_scalars : g4_no_scalars;
    s = claim.node;
    denied = claim.is_denied;
    g4_schema_info *info = g4_shaper_info(sh, s);
    if (info->has_scalars[denied]) return info->scalars[denied];
    if (sh->depth >= G4_CLAIMS_MAX_DEPTH) {
        g4_shaper_loosen(sh, s, "", "nested more than %d deep: anything is allowed", G4_CLAIMS_MAX_DEPTH);
        return g4_all_scalars;
    }
    if (g4_regular_size(sh->regular) > G4_CLAIMS_MAX_PARTS) {
        g4_shaper_loosen(sh, s, "", "the grammar becomes too large: any value without parts is allowed");
        return g4_all_scalars;
    }
    info->has_scalars[denied] = 1;
    info->scalars[denied] = g4_no_scalars;
    sh->depth++;
    const g4_scalars out = g4_object_schema_scalars(sh, s, denied);
    sh->depth--;
    info->scalars[denied] = out;
    return out;
}

g4_scalars g4_claim_scalars(g4_shaper *sh, g4_claim claim)
{
    return claim.is_value ? g4_constant_scalars(sh, claim.node, claim.is_denied)
                          : g4_schema_scalars(sh, claim.node, claim.is_denied);
}

/* ---- Goals --------------------------------------------------------------------------------------- */

int g4_claims_equal(g4_claim a, g4_claim b)
{
    return a.node == b.node && a.is_value == b.is_value && a.is_denied == b.is_denied;
}

/* The only value that is valid for the claim's schema; NULL: there may be others. */
static const g4_json *g4_claim_constant(g4_shaper *sh, g4_claim claim)
{
    if (claim.is_value) return claim.node;
    const g4_schema_info *info = g4_shaper_info(sh, claim.node);
    if (claim.node->kind != G4_JSON_OBJECT || info->only != NULL || info->dialect < 6 || g4_is_nullable(claim.node))
        return NULL;
    return g4_json_get(claim.node, "const");
}

/* Where a claim leaves one value only, others that this meets say nothing, and some contradict it: returns how many
 * claims are left, or -1. So that the alternatives that a constant tells apart are cheap. */
static int g4_claims_reduce(g4_shaper *sh, g4_claim *claims, int n)
{
    const g4_json *value = NULL;
    int first = 0, kept = 0;
    for (; first < n && value == NULL; first++)
        if (!claims[first].is_denied) value = g4_claim_constant(sh, claims[first]);
    for (int i = 0; i < n; i++) {
        const g4_json *other = value != NULL && i != first - 1 ? g4_claim_constant(sh, claims[i]) : NULL;
        const int differs = other != NULL && !g4_json_equal(value, other);
        if (differs && !claims[i].is_denied) return -1;
        if (!differs) claims[kept++] = claims[i];
    }
    return kept;
}

/* The settled claims, each once, in their order, into `out`; returns their number, or -1 when nothing meets them. */
static int g4_claims_settle(g4_shaper *sh, g4_claim *out, const g4_claim *claims, int n)
{
    const uint32_t stamp = ++sh->stamp;
    int kept = 0;
    for (int i = 0; i < n; i++) {
        g4_claim claim = claims[i];
        const int found = g4_claim_settle(sh, &claim);
        if (found == 0) return -1;
        if (found == 1) continue;
        uint32_t *taken = &g4_shaper_info(sh, claim.node)->taken[claim.is_value * 2 + claim.is_denied];
        if (*taken != stamp) out[kept++] = claim;
        *taken = stamp;
    }
    return g4_claims_reduce(sh, out, kept);
}

/* A new one like that, whose claims and schemas become the arena's. */
static int g4_goal_add(g4_shaper *sh, g4_goal like)
{
    g4_goal *goal = g4_arena_alloc(sh->arena, sizeof *goal);
    g4_claim *claims = g4_arena_alloc(sh->arena, (size_t)(like.n + 1) * sizeof *claims);
    const g4_json **beside = g4_arena_alloc(sh->arena, (size_t)(like.n_beside + 1) * sizeof *beside);
    g4_goal **goals = g4_array_grow(sh->a, sh->goals, sh->n_goals, &sh->cap_goals, sizeof *goals);
    if (goals != NULL) sh->goals = goals;
    if (goal == NULL || claims == NULL || beside == NULL || goals == NULL) {
        sh->no_memory = 1;
        return G4_GOAL_NONE;
    }
    if (like.n > 0) memcpy(claims, like.claims, (size_t)like.n * sizeof *claims);
    if (like.n_beside > 0) memcpy(beside, like.beside, (size_t)like.n_beside * sizeof *beside);
    like.claims = claims;
    like.beside = beside;
    *goal = like;
    goals[sh->n_goals] = goal;
    g4_shaper_put(sh, &sh->goal_table, like.hash, sh->n_goals);
    return sh->n_goals++;
}

/* The number of the goal that is like that, which may be new. */
static int g4_goal_find(g4_shaper *sh, g4_goal like)
{
    uint64_t h = 0;
    uint32_t at = 0;
    for (int i = 0; i < like.n; i++)
        h = g4_hash_mix(h,
                        (uintptr_t)like.claims[i].node * 4 + like.claims[i].is_value * 2u + like.claims[i].is_denied);
    for (int i = 0; i < like.n_beside; i++) h = g4_hash_mix(h, (uintptr_t)like.beside[i]);
    like.hash = (uint32_t)h;
    for (int32_t i; (i = g4_table_next(&sh->goal_table, like.hash, &at)) >= 0;) {
        const g4_goal *goal = sh->goals[i];
        int same = i > G4_GOAL_ANY && goal->n == like.n && goal->n_beside == like.n_beside;
        for (int k = 0; k < like.n && same; k++) same = g4_claims_equal(goal->claims[k], like.claims[k]);
        for (int k = 0; k < like.n_beside && same; k++) same = goal->beside[k] == like.beside[k];
        if (same) return i;
    }
    if (sh->n_goals < G4_CLAIMS_MAX_GOALS) return g4_goal_add(sh, like);
    g4_shaper_loosen(sh, like.claims[0].node, "", "more than %d combinations of schemas: anything is allowed here",
                     G4_CLAIMS_MAX_GOALS);
    return G4_GOAL_ANY;
}

int g4_goal_of(g4_shaper *sh, const g4_claim *claims, int n)
{
    if (sh->no_memory) return G4_GOAL_NONE;
    g4_claim few[16], *own = n > 16 ? g4_alloc(sh->a, (size_t)n, sizeof *own) : few;
    sh->no_memory |= own == NULL;
    if (own == NULL) return G4_GOAL_NONE;
    const int kept = g4_claims_settle(sh, own, claims, n);
    int found = kept < 0 ? G4_GOAL_NONE : G4_GOAL_ANY;
    if (kept > 0) found = g4_goal_find(sh, (g4_goal) { .claims = own, .n = kept, .rule = -1 });
    if (own != few) g4_free(sh->a, own);
    return found;
}

int g4_goal_beside(g4_shaper *sh, int goal, const g4_json *const *beside, int n)
{
    if (goal <= G4_GOAL_ANY || n == 0 || sh->no_memory) return goal;
    const g4_json **own = g4_alloc(sh->a, (size_t)n, sizeof *own);
    sh->no_memory |= own == NULL;
    if (own == NULL) return G4_GOAL_NONE;
    memcpy(own, beside, (size_t)n * sizeof *own);
    g4_goal like = *sh->goals[goal];
    like.beside = own;
    like.n_beside = n;
    like.rule = -1;
    const int found = g4_goal_find(sh, like);
    g4_free(sh->a, own);
    return found;
}

int g4_goal_with(g4_shaper *sh, int goal, g4_claim claim)
{
    if (goal == G4_GOAL_NONE) return G4_GOAL_NONE;
    const g4_goal *old = sh->goals[goal];
    g4_claim *all = g4_alloc(sh->a, (size_t)old->n + 1, sizeof *all);
    sh->no_memory |= all == NULL;
    if (all == NULL) return G4_GOAL_NONE;
    if (old->n > 0) memcpy(all, old->claims, (size_t)old->n * sizeof *all);
    all[old->n] = claim;
    const int with = g4_goal_beside(sh, g4_goal_of(sh, all, old->n + 1), old->beside, old->n_beside);
    g4_free(sh->a, all);
    return with;
}

/* What is left of all claims of a goal; NONE: it has no text. Nobody can wait for an answer that may take for ever. */
static g4_re g4_goal_settled(g4_shaper *sh, const g4_goal *goal, g4_re re, const char *what)
{
    const int is_none = re == G4_RE_ANY ? 0 : g4_re_is_none(sh->regular, re);
    if (is_none >= 0 || g4_shaper_stops(sh)) return is_none == 1 ? G4_RE_NONE : re;
    g4_shaper_loosen(sh, goal->claims[0].node, "",
                     "it takes too long to find out which %s meet it: any of them is allowed", what);
    return G4_RE_ANY;
}

const g4_scalars *g4_goal_scalars(g4_shaper *sh, int number)
{
    g4_goal *goal = sh->goals[number];
    if (goal->has_scalars) return &goal->scalars;
    goal->scalars = g4_all_scalars;
    for (int i = 0; i < goal->n; i++)
        goal->scalars = g4_scalars_and(sh, goal->scalars, g4_claim_scalars(sh, goal->claims[i]));
    goal->scalars.string = g4_goal_settled(sh, goal, goal->scalars.string, "strings");
    goal->scalars.number = g4_goal_settled(sh, goal, goal->scalars.number, "numbers");
    goal->has_scalars = 1;
    return &goal->scalars;
}

/* ---- Names and keys ------------------------------------------------------------------------------ */

int32_t g4_shaper_name(g4_shaper *sh, const char *s, size_t n)
{
    const uint32_t hash = g4_hash_bytes(s, n);
    uint32_t at = 0;
    for (int32_t i; (i = g4_table_next(&sh->name_table, hash, &at)) >= 0;)
        if (sh->names[i].len == n && memcmp(sh->names[i].text, s, n) == 0) return i;
    const int32_t name = sh->n_names;
    int32_t *own = g4_arena_alloc(sh->arena, sizeof *own);
    g4_name *names = g4_array_grow(sh->a, sh->names, sh->n_names, &sh->cap_names, sizeof *names);
    if (names != NULL) sh->names = names;
    if (names == NULL || own == NULL) {
        sh->no_memory = 1;
        return 0;
    }
    *own = name;
    names[name] = (g4_name) { .text = s, .len = n };
    names[name].matcher = g4_matcher_new(sh, own, 1, G4_RE_NONE, 0);
    sh->n_names++;
    g4_shaper_put(sh, &sh->name_table, hash, name);
    return name;
}

const g4_matcher *g4_matcher_new(g4_shaper *sh, const int32_t *names, int n, g4_re keys, int is_complement)
{
    g4_matcher *k = g4_arena_alloc(sh->arena, sizeof *k);
    if (k == NULL) {
        static const g4_matcher nothing = { 0 };
        sh->no_memory = 1;
        return &nothing;
    }
    *k = (g4_matcher) { .names = names, .n_names = n, .keys = keys, .is_complement = is_complement };
    return k;
}

g4_re g4_name_text(g4_shaper *sh, int32_t name) { return g4_written(sh, sh->names[name].text, sh->names[name].len); }

g4_re g4_names_text(g4_shaper *sh, const int32_t *names, int n)
{
    g4_text *texts = g4_alloc(sh->a, (size_t)n + 1, sizeof *texts);
    sh->no_memory |= texts == NULL;
    if (texts == NULL) return G4_RE_NONE;
    for (int i = 0; i < n; i++) texts[i] = (g4_text) { sh->names[names[i]].text, sh->names[names[i]].len };
    const g4_re re = g4_written_words(sh, texts, n);
    g4_free(sh->a, texts);
    return re;
}

/* Is the key with this name one that the expression matches? */
static int g4_keys_have(g4_shaper *sh, g4_re keys, int32_t name)
{
    g4_buf b = { .a = sh->a };
    if (keys == G4_RE_NONE) return 0;
    g4_write_text(sh, &b, sh->names[name].text, sh->names[name].len);
    const int has = !b.failed && g4_re_matches(sh->regular, keys, b.data == NULL ? "" : b.data, b.len);
    g4_buf_free(&b);
    return has;
}

int g4_matcher_has(g4_shaper *sh, const g4_matcher *k, int32_t name)
{
    int low = 0, high = k->n_names;
    while (low < high) {
        const int middle = low + (high - low) / 2;
        if (k->names[middle] < name)
            low = middle + 1;
        else
            high = middle;
    }
    const int is_named = low < k->n_names && k->names[low] == name;
    return (is_named || g4_keys_have(sh, k->keys, name)) != k->is_complement;
}

static int g4_compare_numbers(const void *pa, const void *pb)
{
    const int32_t a = *(const int32_t *)pa, b = *(const int32_t *)pb;
    return (a > b) - (a < b);
}

/* Ascending, and each once; returns how many are left. */
int g4_names_sort(g4_shaper *sh, int32_t *names, int n)
{
    int kept = 0;
    if (!g4_sort(sh->a, names, (size_t)n, sizeof *names, g4_compare_numbers, sh->asker.halt)) sh->no_memory = 1;
    for (int i = 0; i < n; i++)
        if (kept == 0 || names[i] != names[kept - 1]) names[kept++] = names[i];
    return kept;
}

g4_re g4_pattern_keys(g4_shaper *sh, const g4_json *s, const g4_json *property)
{
    return g4_shaper_pattern(sh, s, "patternProperties", property, property->key, property->key_len);
}

/* The keys that neither properties nor patternProperties of the schema speak of. A pattern that cannot be held is taken
 * to match every key, so that nothing valid is shut out. */
const g4_matcher *g4_schema_others(g4_shaper *sh, const g4_json *s)
{
    g4_schema_info *info = g4_shaper_info(sh, s);
    if (info->others != NULL) return info->others;
    const g4_json *properties = g4_json_get(s, "properties"), *patterns = g4_json_get(s, "patternProperties");
    g4_re keys = G4_RE_NONE;
    int n = 0, k = 0;
    if (!g4_json_is(properties, G4_JSON_OBJECT)) properties = NULL;
    for (const g4_json *p = properties != NULL ? properties->child : NULL; p != NULL; p = p->next) n++;
    int32_t *names = g4_arena_alloc(sh->arena, (size_t)(n + 1) * sizeof *names);
    sh->no_memory |= names == NULL;
    for (const g4_json *p = names != NULL && n > 0 ? properties->child : NULL; p != NULL; p = p->next)
        names[k++] = g4_shaper_name(sh, p->key, p->key_len);
    if (names != NULL) k = g4_names_sort(sh, names, k);
    for (const g4_json *p = g4_json_is(patterns, G4_JSON_OBJECT) ? patterns->child : NULL; p != NULL; p = p->next) {
        const g4_re re = g4_pattern_keys(sh, s, p);
        keys = re == G4_RE_LOOSE ? sh->any_text : g4_re_or(sh->regular, keys, re);
    }
    return info->others = g4_matcher_new(sh, names, k, keys, 1);
}

/* ---- Formulas over the presence of members ------------------------------------------------------- */

/* What a formula has of its parts. */
static void g4_need_describe(const g4_shaper *sh, g4_need *need)
{
    const g4_need *a = need->op >= G4_NEED_NOT ? &sh->needs[need->a] : NULL;
    const g4_need *b = need->op > G4_NEED_NOT ? &sh->needs[need->b] : NULL;
    need->weight = 1;
    need->at_none = need->op == G4_NEED_ALWAYS_OP;
    if (need->op == G4_NEED_VAR) need->names = (uint64_t)1 << (need->a & 63);
    if (a == NULL) return;
    need->depth = a->depth + 1;
    need->weight = a->weight;
    need->names = a->names;
    need->at_none = !a->at_none;
    if (b == NULL) return;
    need->depth = g4_max_int(a->depth, b->depth) + 1;
    need->weight = a->weight > INT32_MAX / 4 - b->weight ? INT32_MAX / 4 : a->weight + b->weight;
    need->names |= b->names;
    need->at_none = need->op == G4_NEED_AND ? a->at_none && b->at_none : a->at_none || b->at_none;
}

static int g4_need_new(g4_shaper *sh, g4_need need)
{
    const uint32_t hash = (uint32_t)g4_hash_mix(g4_hash_mix(need.op, (uint32_t)need.a), (uint32_t)need.b);
    uint32_t at = 0;
    for (int32_t i; (i = g4_table_next(&sh->need_table, hash, &at)) >= 0;)
        if (sh->needs[i].op == need.op && sh->needs[i].a == need.a && sh->needs[i].b == need.b) return i;
    g4_need *needs = g4_array_grow(sh->a, sh->needs, sh->n_needs, &sh->cap_needs, sizeof *needs);
    if (needs != NULL) sh->needs = needs;
    sh->no_memory |= needs == NULL;
    if (needs == NULL) return G4_NEED_ALWAYS;
    g4_need_describe(sh, &need);
    needs[sh->n_needs] = need;
    g4_shaper_put(sh, &sh->need_table, hash, sh->n_needs);
    return sh->n_needs++;
}

void g4_need_open(g4_shaper *sh)
{
    g4_need_new(sh, (g4_need) { .op = G4_NEED_NEVER_OP });
    g4_need_new(sh, (g4_need) { .op = G4_NEED_ALWAYS_OP });
}

int g4_need_var(g4_shaper *sh, int32_t name) { return g4_need_new(sh, (g4_need) { .op = G4_NEED_VAR, .a = name }); }

int g4_need_not(g4_shaper *sh, int need)
{
    if (need <= G4_NEED_ALWAYS) return !need;
    const g4_need k = sh->needs[need];
    return k.op == G4_NEED_NOT ? k.a : g4_need_new(sh, (g4_need) { .op = G4_NEED_NOT, .a = need });
}

static int g4_needs_are_opposite(const g4_shaper *sh, int a, int b)
{
    return (sh->needs[a].op == G4_NEED_NOT && sh->needs[a].a == b) ||
           (sh->needs[b].op == G4_NEED_NOT && sh->needs[b].a == a);
}

/* What joins the lighter side of a join of the same kind, as long as that stays the lighter one, keeps long lists
 * shallow. Formulas deeper than max_depth are loosened. */
static int g4_need_join(g4_shaper *sh, uint8_t op, int a, int b, int max_depth)
{
    const int absorbing = op == G4_NEED_OR ? G4_NEED_ALWAYS : G4_NEED_NEVER;
    if (a == absorbing || b == absorbing) return absorbing;
    if (a == !absorbing || a == b) return b;
    if (b == !absorbing) return a;
    if (g4_needs_are_opposite(sh, a, b)) return absorbing;
    if (sh->needs[a].weight < sh->needs[b].weight || (sh->needs[a].weight == sh->needs[b].weight && a > b)) {
        const int swap = a;
        a = b;
        b = swap;
    }
    const g4_need k = sh->needs[a];
    if (k.op == op) {
        const int is_lighter = sh->needs[k.a].weight < sh->needs[k.b].weight;
        const int light = is_lighter ? k.a : k.b, heavy = is_lighter ? k.b : k.a;
        if (sh->needs[light].weight + sh->needs[b].weight <= sh->needs[heavy].weight)
            return g4_need_join(sh, op, heavy, g4_need_join(sh, op, light, b, max_depth), max_depth);
    }
    if (g4_max_int(k.depth, sh->needs[b].depth) >= max_depth) {
        sh->n_too_deep++;
        if (sh->presences == 0)
            g4_shaper_loosen(sh, sh->root, "", "conditions on members more than %d deep: the rest is not held",
                             G4_NEED_MAX_DEPTH);
        return op == G4_NEED_OR ? G4_NEED_ALWAYS : a;
    }
    return g4_need_new(sh, (g4_need) { .op = op, .a = a, .b = b });
}

int g4_need_and(g4_shaper *sh, int a, int b) { return g4_need_join(sh, G4_NEED_AND, a, b, G4_NEED_MAX_DEPTH); }
int g4_need_or(g4_shaper *sh, int a, int b) { return g4_need_join(sh, G4_NEED_OR, a, b, G4_NEED_MAX_DEPTH); }

int g4_need_list(g4_shaper *sh, const g4_json *names)
{
    int all = G4_NEED_ALWAYS;
    for (const g4_json *q = names->kind == G4_JSON_ARRAY ? names->child : NULL; q != NULL && !g4_shaper_stops(sh);
         q = q->next)
        if (q->kind == G4_JSON_STRING)
            all = g4_need_and(sh, all, g4_need_var(sh, g4_shaper_name(sh, q->text, q->text_len)));
    return all;
}

/* By halves: exactly one of n is one of this half and none of that, or the other way round. */
int g4_need_exactly_one(g4_shaper *sh, const int *needs, int n, int *none)
{
    int halves[2] = { G4_NEED_ALWAYS, G4_NEED_ALWAYS };
    *none = n == 0 ? G4_NEED_ALWAYS : g4_need_not(sh, needs[0]);
    if (n < 2) return n == 0 ? G4_NEED_NEVER : needs[0];
    const int a = g4_need_exactly_one(sh, needs, n / 2, &halves[0]);
    const int b = g4_need_exactly_one(sh, needs + n / 2, n - n / 2, &halves[1]);
    *none = g4_need_and(sh, halves[0], halves[1]);
    return g4_need_or(sh, g4_need_and(sh, a, halves[1]), g4_need_and(sh, halves[0], b));
}

/* The depth of the calls is that of the formula; each part of it is looked at once, and none without the name. */
static int g4_need_put(g4_shaper *sh, int need, int32_t name, int there)
{
    const g4_need k = sh->needs[need];
    if (!(k.names >> (name & 63) & 1)) return need;
    if (k.op == G4_NEED_VAR) return k.a == name ? there : need;
    if (k.stamp == sh->need_stamp) return k.left;
    sh->work++;
    const int a = g4_need_put(sh, k.a, name, there);
    int left = need;
    if (k.op == G4_NEED_NOT) {
        if (a != k.a) left = g4_need_not(sh, a);
    } else {
        const int b = g4_need_put(sh, k.b, name, there);
        if (a != k.a || b != k.b) left = g4_need_join(sh, k.op, a, b, G4_NEED_MAX_DEPTH + 100);
    }
    sh->needs[need].stamp = sh->need_stamp;
    sh->needs[need].left = left;
    return left;
}

int g4_need_set(g4_shaper *sh, int need, int32_t name, int there)
{
    sh->need_stamp++;
    return g4_need_put(sh, need, name, there);
}

int g4_need_at_none(const g4_shaper *sh, int need) { return sh->needs[need].at_none; }

/* ---- Schemas that speak of the presence of members only ------------------------------------------ */

/* Of all schemas of a list; NULL: some say something else, or there is no memory. */
int *g4_presences(g4_shaper *sh, const g4_json *list, int *n)
{
    *n = 0;
    for (const g4_json *b = list->child; b != NULL; b = b->next) {
        if (g4_schema_presence(sh, b) < 0) return NULL;
        ++*n;
    }
    int *needs = g4_alloc(sh->a, (size_t)*n + 1, sizeof *needs);
    sh->no_memory |= needs == NULL;
    *n = 0;
    for (const g4_json *b = needs != NULL ? list->child : NULL; b != NULL; b = b->next)
        needs[(*n)++] = g4_max_int(0, g4_schema_presence(sh, b));
    return needs;
}

static int g4_presence_list(g4_shaper *sh, const g4_json *list, g4_keyword keyword)
{
    int n, none;
    if (list->kind != G4_JSON_ARRAY || list->child == NULL) return -1;
    int *needs = g4_presences(sh, list, &n);
    if (needs == NULL) return -1;
    int all = keyword == G4_KEY_ALL_OF ? G4_NEED_ALWAYS : G4_NEED_NEVER;
    if (keyword == G4_KEY_ONE_OF) all = g4_need_exactly_one(sh, needs, n, &none);
    for (int i = 0; i < n && keyword != G4_KEY_ONE_OF; i++)
        all = keyword == G4_KEY_ALL_OF ? g4_need_and(sh, all, needs[i]) : g4_need_or(sh, all, needs[i]);
    g4_free(sh->a, needs);
    return all;
}

/* Properties that must not be there. */
static int g4_presence_properties(g4_shaper *sh, const g4_json *properties)
{
    int need = G4_NEED_ALWAYS;
    if (properties->kind != G4_JSON_OBJECT) return -1;
    for (const g4_json *p = properties->child; p != NULL; p = p->next) {
        g4_claim claim = { p, 0, 0 };
        const int found = g4_claim_settle(sh, &claim);
        if (found == 2 || (found == 1 && g4_claim_is_loose(&claim))) return -1;
        const int there = g4_need_var(sh, g4_shaper_name(sh, p->key, p->key_len));
        if (found == 0) need = g4_need_and(sh, need, g4_need_not(sh, there));
    }
    return need;
}

/* If one member is there, so must others be. */
int g4_need_dependent(g4_shaper *sh, const g4_json *member)
{
    const g4_json one = { .kind = G4_JSON_ARRAY, .child = (g4_json *)NULL };
    int others = G4_NEED_ALWAYS;
    if (member->kind == G4_JSON_STRING)
        others = g4_need_var(sh, g4_shaper_name(sh, member->text, member->text_len));
    else
        others = g4_need_list(sh, member->kind == G4_JSON_ARRAY ? member : &one);
    return g4_need_or(sh, g4_need_not(sh, g4_need_var(sh, g4_shaper_name(sh, member->key, member->key_len))), others);
}

static int g4_presence_dependent(g4_shaper *sh, const g4_json *members)
{
    int need = G4_NEED_ALWAYS;
    if (members->kind != G4_JSON_OBJECT) return -1;
    for (const g4_json *m = members->child; m != NULL; m = m->next) {
        if (m->kind != G4_JSON_ARRAY) return -1;
        need = g4_need_and(sh, need, g4_need_dependent(sh, m));
    }
    return need;
}

static int g4_presence_if(g4_shaper *sh, const g4_json *s, const g4_json *condition)
{
    const g4_json *then = g4_json_get(s, "then"), *other = g4_json_get(s, "else");
    const int when = g4_schema_presence(sh, condition);
    const int a = then != NULL ? g4_schema_presence(sh, then) : G4_NEED_ALWAYS;
    const int b = other != NULL ? g4_schema_presence(sh, other) : G4_NEED_ALWAYS;
    if (when < 0 || a < 0 || b < 0) return -1;
    return g4_need_and(sh, g4_need_or(sh, g4_need_not(sh, when), a), g4_need_or(sh, when, b));
}

static int g4_presence_keyword(g4_shaper *sh, const g4_json *s, const g4_json *m)
{
    const g4_keyword keyword = g4_keyword_of(m);
    int need;
    const g4_json *target;
    switch (keyword) {
    case G4_KEY_OTHER:
    case G4_KEY_NULLABLE: return G4_NEED_ALWAYS;
    case G4_KEY_TYPE: return (g4_schema_type_bits(sh, s, m) & G4_T_OBJECT) != 0 ? G4_NEED_ALWAYS : G4_NEED_NEVER;
    case G4_KEY_REQUIRED: return m->kind == G4_JSON_ARRAY ? g4_need_list(sh, m) : -1;
    case G4_KEY_PROPERTIES: return g4_presence_properties(sh, m);
    case G4_KEY_DEPENDENT_REQUIRED:
    case G4_KEY_DEPENDENCIES: return g4_presence_dependent(sh, m);
    case G4_KEY_ALL_OF:
    case G4_KEY_ANY_OF:
    case G4_KEY_ONE_OF: return g4_presence_list(sh, m, keyword);
    case G4_KEY_NOT: need = g4_schema_presence(sh, m); return need < 0 ? -1 : g4_need_not(sh, need);
    case G4_KEY_IF: return g4_presence_if(sh, s, m);
    case G4_KEY_REF: target = g4_schema_target(sh, s, m); return target != NULL ? g4_schema_presence(sh, target) : -1;
    default: return -1;
    }
}

int g4_schema_presence(g4_shaper *sh, const g4_json *s)
{
    g4_claim claim = { s, 0, 0 };
    const int found = g4_claim_settle(sh, &claim);
    if (found != 2) return found == 1 && g4_claim_is_loose(&claim) ? -1 : found; /* the formulas of these numbers */
    if (claim.is_denied) {
        const int met = g4_schema_presence(sh, claim.node);
        return met < 0 ? -1 : g4_need_not(sh, met);
    }
    g4_schema_info *info = g4_shaper_info(sh, claim.node);
    s = claim.node;
    if (info->has_presence) return info->presence;
    info->has_presence = 1;
    info->presence = -1;
    if (sh->depth++ < G4_CLAIMS_MAX_DEPTH) {
        int need = G4_NEED_ALWAYS;
        const int n_too_deep = sh->n_too_deep;
        sh->presences++;
        for (const g4_json *m = g4_schema_member(info, NULL); m != NULL && need >= 0; m = g4_schema_member(info, m)) {
            const int next = g4_presence_keyword(sh, s, m);
            need = next < 0 ? -1 : g4_need_and(sh, need, next);
        }
        sh->presences--;
        /* What was loosened may be denied elsewhere, which would shut out what is valid. */
        info->presence = sh->n_too_deep > n_too_deep ? -1 : need;
    }
    sh->depth--;
    return info->presence;
}
