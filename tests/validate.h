/* validate.h - a JSON value against a JSON Schema, told from the schema's own words: an oracle for fuzzing that knows
 * nothing of automata. It has three answers; whatever it does not look at is G4_MAYBE. */
#ifndef G4_VALIDATE_H
#define G4_VALIDATE_H

#include <math.h>

#include "chat/chat.h"

typedef enum { G4_INVALID = -1, G4_MAYBE, G4_VALID } g4_verdict; /* negated by a minus, as in Kleene's logic */

typedef struct {
    const g4_json *root;
    int depth; /* of schemas within each other */
} g4_validator;

static inline g4_verdict g4_verdict_and(g4_verdict a, g4_verdict b) { return a < b ? a : b; }
static inline g4_verdict g4_verdict_or(g4_verdict a, g4_verdict b) { return a > b ? a : b; }
static inline g4_verdict g4_verdict_of(int is_so) { return is_so ? G4_VALID : G4_INVALID; }

static g4_verdict g4_validate(g4_validator *v, const g4_json *schema, const g4_json *value);

static inline int g4_count(const g4_json *list)
{
    int n = 0;
    for (const g4_json *c = list->child; c != NULL; c = c->next) n++;
    return n;
}

static inline int g4_is_integer(const g4_json *number) { return number->number == floor(number->number); }

static inline int g4_is_composite(const g4_json *v) { return v->kind == G4_JSON_ARRAY || v->kind == G4_JSON_OBJECT; }

/* ---- Any value ------------------------------------------------------------------------------------------ */

static inline g4_verdict g4_validate_type_name(const g4_json *name, const g4_json *value)
{
    static const char *const names[] = { "null", "boolean", "boolean", "number", "string", "array", "object" };
    if (g4_json_is_text(name, "integer")) return g4_verdict_of(value->kind == G4_JSON_NUMBER && g4_is_integer(value));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (g4_json_is_text(name, names[i])) return g4_verdict_of(strcmp(names[i], names[value->kind]) == 0);
    return G4_MAYBE;
}

static inline g4_verdict g4_validate_type(const g4_json *type, const g4_json *value)
{
    if (type->kind != G4_JSON_ARRAY) return g4_validate_type_name(type, value);
    g4_verdict any = type->child == NULL ? G4_MAYBE : G4_INVALID;
    for (const g4_json *c = type->child; c != NULL; c = c->next)
        any = g4_verdict_or(any, g4_validate_type_name(c, value));
    return any;
}

/* That a composite value is not one of these is not demanded. */
static inline g4_verdict g4_validate_const(const g4_json *constant, const g4_json *value)
{
    if (!g4_json_equal(constant, value)) return G4_INVALID;
    return g4_is_composite(constant) ? G4_MAYBE : G4_VALID;
}

static inline g4_verdict g4_validate_enum(const g4_json *list, const g4_json *value)
{
    if (list->kind != G4_JSON_ARRAY) return G4_MAYBE;
    g4_verdict any = G4_INVALID;
    for (const g4_json *c = list->child; c != NULL; c = c->next) any = g4_verdict_or(any, g4_validate_const(c, value));
    return any;
}

/* ---- Schemas of the same value -------------------------------------------------------------------------- */

static inline g4_verdict g4_validate_several(g4_validator *v, const g4_json *list, const g4_json *value, char how)
{
    int n[3] = { 0 };
    if (list->kind != G4_JSON_ARRAY || list->child == NULL) return G4_MAYBE;
    for (const g4_json *c = list->child; c != NULL; c = c->next) n[g4_validate(v, c, value) + 1]++;
    if (how == 'a') return n[0] > 0 ? G4_INVALID : n[1] > 0 ? G4_MAYBE : G4_VALID;
    if (how == 'o' && n[2] > 1) return G4_INVALID;
    if (n[2] > 0) return how == 'o' && n[1] > 0 ? G4_MAYBE : G4_VALID;
    return n[1] > 0 ? G4_MAYBE : G4_INVALID;
}

static inline g4_verdict g4_validate_if(g4_validator *v, const g4_json *schema, const g4_json *value)
{
    const g4_json *then = g4_json_get(schema, "then"), *otherwise = g4_json_get(schema, "else");
    const g4_verdict holds = g4_validate(v, g4_json_get(schema, "if"), value);
    const g4_verdict yes = then != NULL ? g4_validate(v, then, value) : G4_VALID;
    const g4_verdict no = otherwise != NULL ? g4_validate(v, otherwise, value) : G4_VALID;
    return holds == G4_VALID ? yes : holds == G4_INVALID ? no : yes == no ? yes : G4_MAYBE;
}

/* "#" and pointers without escapes. */
static inline g4_verdict g4_validate_reference(g4_validator *v, const g4_json *reference, const g4_json *value)
{
    const g4_json *at = v->root;
    const char *p = reference->text;
    if (reference->kind != G4_JSON_STRING || *p++ != '#') return G4_MAYBE;
    while (at != NULL && *p == '/') {
        char name[64];
        const size_t n = strcspn(++p, "/");
        if (n >= sizeof name || at->kind != G4_JSON_OBJECT) return G4_MAYBE;
        memcpy(name, p, n);
        name[n] = '\0';
        at = g4_json_get(at, name);
        p += n;
    }
    return at == NULL || *p != '\0' ? G4_MAYBE : g4_validate(v, at, value);
}

/* ---- Numbers and counts ----------------------------------------------------------------------------------- */

/* Is the order of a number and a bound as it should be? What is equal as a double may still differ. */
static inline g4_verdict g4_validate_bound(const g4_json *bound, const g4_json *value, int sign, int is_exclusive)
{
    enum { DIGITS = 15 }; /* of which a double is sure */
    if (value->kind != G4_JSON_NUMBER) return G4_VALID;
    if (bound->kind != G4_JSON_NUMBER) return G4_MAYBE;
    const double beyond = sign * (value->number - bound->number);
    if (beyond == 0 && (value->text_len > DIGITS || bound->text_len > DIGITS)) return G4_MAYBE;
    return g4_verdict_of(is_exclusive ? beyond > 0 : beyond >= 0);
}

static inline g4_verdict g4_validate_multiple(const g4_json *of, const g4_json *value)
{
    if (value->kind != G4_JSON_NUMBER) return G4_VALID;
    if (of->kind != G4_JSON_NUMBER || !(of->number > 0)) return G4_MAYBE;
    const double times = value->number / of->number, off = fabs(times - round(times));
    return fabs(times) > 1e9 ? G4_MAYBE : off > 1e-5 ? G4_INVALID : off == 0 ? G4_VALID : G4_MAYBE;
}

static inline g4_verdict g4_validate_count(const g4_json *limit, int n, int sign)
{
    if (limit->kind != G4_JSON_NUMBER) return G4_MAYBE;
    return g4_verdict_of(sign * (n - limit->number) >= 0);
}

static inline int g4_count_characters(const g4_json *text)
{
    int n = 0;
    for (size_t i = 0; i < text->text_len; i++) n += ((unsigned char)text->text[i] & 0xc0) != 0x80;
    return n;
}

static inline g4_verdict g4_validate_limit(const g4_json *keyword, const g4_json *value)
{
    static const struct {
        const char *name;
        g4_json_kind kind;
        int sign;
    } limits[] = { { "minLength", G4_JSON_STRING, 1 },     { "maxLength", G4_JSON_STRING, -1 },
                   { "minItems", G4_JSON_ARRAY, 1 },       { "maxItems", G4_JSON_ARRAY, -1 },
                   { "minProperties", G4_JSON_OBJECT, 1 }, { "maxProperties", G4_JSON_OBJECT, -1 } };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        if (!g4_json_key_is(keyword, limits[i].name)) continue;
        if (value->kind != limits[i].kind) return G4_VALID;
        const int n = value->kind == G4_JSON_STRING ? g4_count_characters(value) : g4_count(value);
        return g4_validate_count(keyword, n, limits[i].sign);
    }
    return G4_MAYBE;
}

/* ---- Objects ------------------------------------------------------------------------------------------------ */

static inline g4_verdict g4_validate_members(g4_validator *v, const g4_json *schema, const g4_json *value)
{
    const g4_json *properties = g4_json_get(schema, "properties");
    const g4_json *others = g4_json_get(schema, "additionalProperties");
    g4_verdict all = G4_VALID;
    for (const g4_json *c = value->child; value->kind == G4_JSON_OBJECT && c != NULL; c = c->next) {
        const g4_json *declared = properties != NULL ? g4_json_get(properties, c->key) : NULL;
        if (declared != NULL)
            all = g4_verdict_and(all, g4_validate(v, declared, c));
        else if (others != NULL)
            all = g4_verdict_and(all, g4_json_get(schema, "patternProperties") ? G4_MAYBE : g4_validate(v, others, c));
    }
    return all;
}

static inline g4_verdict g4_validate_names(g4_validator *v, const g4_json *schema, const g4_json *value)
{
    g4_verdict all = G4_VALID;
    for (const g4_json *c = value->child; value->kind == G4_JSON_OBJECT && c != NULL; c = c->next) {
        const g4_json name = { .kind = G4_JSON_STRING, .text = c->key, .text_len = c->key_len };
        all = g4_verdict_and(all, g4_validate(v, schema, &name));
    }
    return all;
}

static inline g4_verdict g4_validate_required(const g4_json *names, const g4_json *value)
{
    if (names->kind != G4_JSON_ARRAY) return G4_MAYBE;
    for (const g4_json *c = names->child; value->kind == G4_JSON_OBJECT && c != NULL; c = c->next)
        if (g4_json_get(value, c->text) == NULL) return G4_INVALID;
    return G4_VALID;
}

static inline g4_verdict g4_validate_dependent(g4_validator *v, const g4_json *list, const g4_json *value)
{
    g4_verdict all = G4_VALID;
    for (const g4_json *c = list->child; value->kind == G4_JSON_OBJECT && c != NULL; c = c->next) {
        if (g4_json_get(value, c->key) == NULL) continue;
        all = g4_verdict_and(all, c->kind == G4_JSON_ARRAY ? g4_validate_required(c, value) : g4_validate(v, c, value));
    }
    return all;
}

/* ---- Arrays ------------------------------------------------------------------------------------------------- */

static inline g4_verdict g4_validate_elements(g4_validator *v, const g4_json *schema, const g4_json *value)
{
    const g4_json *first = g4_json_get(schema, "prefixItems"), *rest = g4_json_get(schema, "items");
    if ((first != NULL && first->kind != G4_JSON_ARRAY) || g4_json_is(rest, G4_JSON_ARRAY)) return G4_MAYBE;
    g4_verdict all = G4_VALID;
    first = first != NULL ? first->child : NULL;
    for (const g4_json *c = value->child; value->kind == G4_JSON_ARRAY && c != NULL; c = c->next) {
        const g4_json *one = first != NULL ? first : rest;
        if (one != NULL) all = g4_verdict_and(all, g4_validate(v, one, c));
        if (first != NULL) first = first->next;
    }
    return all;
}

static inline g4_verdict g4_validate_contains(g4_validator *v, const g4_json *schema, const g4_json *value)
{
    const g4_json *min = g4_json_get(schema, "minContains"), *max = g4_json_get(schema, "maxContains");
    int n[3] = { 0 };
    if (value->kind != G4_JSON_ARRAY) return G4_VALID;
    for (const g4_json *c = value->child; c != NULL; c = c->next)
        n[g4_validate(v, g4_json_get(schema, "contains"), c) + 1]++;
    if (n[1] > 0) return G4_MAYBE;
    const g4_verdict enough = min != NULL ? g4_validate_count(min, n[2], 1) : g4_verdict_of(n[2] > 0);
    return g4_verdict_and(enough, max != NULL ? g4_validate_count(max, n[2], -1) : G4_VALID);
}

/* Equal values that may be spelled in different ways are not looked at. */
static inline g4_verdict g4_validate_unique(const g4_json *value)
{
    g4_verdict all = G4_VALID;
    if (value->kind != G4_JSON_ARRAY) return G4_VALID;
    for (const g4_json *a = value->child; a != NULL; a = a->next)
        for (const g4_json *b = a->next; b != NULL; b = b->next)
            if (g4_json_equal(a, b)) all = g4_verdict_and(all, a->kind < G4_JSON_NUMBER ? G4_INVALID : G4_MAYBE);
    return all;
}

/* ---- A schema ----------------------------------------------------------------------------------------------- */

static inline g4_verdict g4_validate_keyword(g4_validator *v, const g4_json *schema, const g4_json *k,
                                             const g4_json *value)
{
    static const char *const beside[] = { "minContains", "maxContains", "then", "else", "$defs", "$comment", NULL };
    if (g4_json_key_in(k, beside)) return G4_VALID;
    if (g4_json_key_is(k, "type")) return g4_validate_type(k, value);
    if (g4_json_key_is(k, "const")) return g4_validate_const(k, value);
    if (g4_json_key_is(k, "enum")) return g4_validate_enum(k, value);
    if (g4_json_key_is(k, "allOf")) return g4_validate_several(v, k, value, 'a');
    if (g4_json_key_is(k, "anyOf")) return g4_validate_several(v, k, value, 'y');
    if (g4_json_key_is(k, "oneOf")) return g4_validate_several(v, k, value, 'o');
    if (g4_json_key_is(k, "not")) return (g4_verdict)-g4_validate(v, k, value);
    if (g4_json_key_is(k, "if")) return g4_validate_if(v, schema, value);
    if (g4_json_key_is(k, "$ref")) return g4_validate_reference(v, k, value);
    if (g4_json_key_is(k, "minimum")) return g4_validate_bound(k, value, 1, 0);
    if (g4_json_key_is(k, "maximum")) return g4_validate_bound(k, value, -1, 0);
    if (g4_json_key_is(k, "exclusiveMinimum")) return g4_validate_bound(k, value, 1, 1);
    if (g4_json_key_is(k, "exclusiveMaximum")) return g4_validate_bound(k, value, -1, 1);
    if (g4_json_key_is(k, "multipleOf")) return g4_validate_multiple(k, value);
    if (g4_json_key_is(k, "properties")) return g4_validate_members(v, schema, value);
    if (g4_json_key_is(k, "additionalProperties")) return g4_validate_members(v, schema, value);
    if (g4_json_key_is(k, "propertyNames")) return g4_validate_names(v, k, value);
    if (g4_json_key_is(k, "required")) return g4_validate_required(k, value);
    if (g4_json_key_is(k, "dependentRequired")) return g4_validate_dependent(v, k, value);
    if (g4_json_key_is(k, "dependentSchemas")) return g4_validate_dependent(v, k, value);
    if (g4_json_key_is(k, "items") || g4_json_key_is(k, "prefixItems")) return g4_validate_elements(v, schema, value);
    if (g4_json_key_is(k, "contains")) return g4_validate_contains(v, schema, value);
    if (g4_json_key_is(k, "uniqueItems") && k->kind == G4_JSON_TRUE) return g4_validate_unique(value);
    return g4_validate_limit(k, value);
}

static inline g4_verdict g4_validate_keywords(g4_validator *v, const g4_json *schema, const g4_json *value)
{
    g4_verdict all = G4_VALID;
    for (const g4_json *k = schema->child; k != NULL; k = k->next)
        all = g4_verdict_and(all, g4_validate_keyword(v, schema, k, value));
    return all;
}

static inline g4_verdict g4_validate(g4_validator *v, const g4_json *schema, const g4_json *value)
{
    enum { DEPTH = 40 };
    if (schema == NULL) return G4_MAYBE;
    if (schema->kind == G4_JSON_TRUE || schema->kind == G4_JSON_FALSE)
        return g4_verdict_of(schema->kind == G4_JSON_TRUE);
    if (schema->kind != G4_JSON_OBJECT || v->depth >= DEPTH) return G4_MAYBE;
    v->depth++;
    const g4_verdict verdict = g4_validate_keywords(v, schema, value);
    v->depth--;
    return verdict;
}

/* A text against the text of a schema. Drafts before 2020-12, and OpenAI's envelope, are not looked at. */
static inline g4_verdict g4_validate_text(const char *schema, const char *text, size_t len)
{
    static const char *const others[] = { "$schema", "schema", "json_schema", NULL };
    g4_json *s = NULL, *value = NULL;
    g4_verdict verdict = G4_MAYBE;
    if (g4_json_parse(&s, NULL, schema, strlen(schema), NULL) == G4_OK &&
        g4_json_parse(&value, NULL, text, len, NULL) == G4_OK) {
        int is_other = 0;
        for (const g4_json *c = s->child; c != NULL; c = c->next) is_other |= g4_json_key_in(c, others);
        if (!is_other) verdict = g4_validate(&(g4_validator) { .root = s }, s, value);
    }
    g4_json_free(NULL, s);
    g4_json_free(NULL, value);
    return verdict;
}

#endif
