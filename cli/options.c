/* options.c - an option and its value: what it sets, in which form, and which one was meant. It does not matter here
 * where it was said, on the command line or in a file. */
#include "cli.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- Texts of our own ---------------------------------------------------------------------------------- */

char *arguments_keep(arguments *a, buffer *b)
{
    buffer_add(b, "", 0); /* an empty text has its NUL too */
    char **grown = b->failed ? NULL : realloc(a->kept, ((size_t)a->n_kept + 1) * sizeof *grown);
    if (grown == NULL) {
        buffer_free(b);
        say(FAILED, "no memory for the arguments");
        return NULL;
    }
    a->kept = grown;
    grown[a->n_kept++] = b->data;
    *b = (buffer) { 0 };
    return grown[a->n_kept - 1];
}

void arguments_free(arguments *a)
{
    for (int i = 0; i < a->n_kept; i++) free(a->kept[i]);
    free(a->kept);
    free(a->given);
    free(a->inputs);
    buffer_free(&a->found_model);
}

/* ---- Values --------------------------------------------------------------------------------------------- */

typedef struct { /* an option, what is to become of it, and where that was said: "" is the command line */
    const option *o;
    const char *value, *where;
} setting;

static int *int_field(arguments *a, const option *o) { return (int *)(void *)((char *)a + o->target); }
static double *number_field(arguments *a, const option *o) { return (double *)(void *)((char *)a + o->target); }
static const char **text_field(arguments *a, const option *o) { return (const char **)(void *)((char *)a + o->target); }

static const char *option_name(const option *o) { return o->letter != NULL ? o->letter : o->name; }

static int wrong_value(const setting *s, const char *wanted)
{
    return say(USAGE, "%s%s needs %s, not \"%s\"", s->where, s->where[0] == '\0' ? option_name(s->o) : s->o->name,
               wanted, s->value);
}

/* A number, the whole of text; 0 on success. */
static int parse_number(const char *text, double *out)
{
    char *end;
    if (*text == '\0' || *text == ' ') return 1;
    *out = strtod(text, &end);
    return *end != '\0' || isnan(*out);
}

static int parse_whole(const char *text, double min, double max, int *out)
{
    double x = 0;
    if (parse_number(text, &x) || x != floor(x) || x < min || x > max) return 1;
    *out = (int)x;
    return 0;
}

static int set_int(const setting *s, int *field)
{
    char wanted[96];
    int has_max = s->o->kind == OPTION_CONTEXT;
    snprintf(wanted, sizeof wanted, "a whole number from %.0f to %.0f%s", s->o->min, s->o->max,
             has_max ? ", or max" : "");
    if (has_max && strcmp(s->value, "max") == 0)
        *field = CONTEXT_MAX;
    else if (parse_whole(s->value, s->o->min, s->o->max, field))
        return wrong_value(s, wanted);
    return DONE;
}

static int set_number(const setting *s, double *field)
{
    char wanted[96];
    double x = 0;
    snprintf(wanted, sizeof wanted, "a number from %g to %g", s->o->min, s->o->max);
    if (parse_number(s->value, &x) || x < s->o->min || x > s->o->max) return wrong_value(s, wanted);
    *field = x;
    return DONE;
}

/* 64 bits that nobody foresees. */
static int draw_seed(uint64_t *seed)
{
    FILE *f = fopen("/dev/urandom", "rb");
    int drawn = f != NULL && fread(seed, sizeof *seed, 1, f) == 1;
    if (f != NULL) fclose(f);
    return drawn ? DONE : say(FAILED, "cannot read /dev/urandom for a random seed: %s", strerror(errno));
}

static int set_seed(arguments *a, const setting *s)
{
    char *end;
    a->random_seed = strcmp(s->value, "random") == 0;
    a->has_seed = 1;
    if (a->random_seed) return draw_seed(&a->seed);
    errno = 0;
    unsigned long long seed = strtoull(s->value, &end, 10);
    if (s->value[0] < '0' || s->value[0] > '9' || *end != '\0' || errno != 0) {
        return wrong_value(s, "a whole number from 0 to 18446744073709551615, or random");
    }
    a->seed = seed;
    return DONE;
}

static int set_path(arguments *a, const setting *s, const char **field)
{
    buffer path = { 0 };
    int is_model = field == &a->model, status = is_model ? path_read(s->value, &path) : path_expand(s->value, &path);
    if (status == DONE && path.len == 0) status = wrong_value(s, "a name");
    if (status == DONE) {
        *field = arguments_keep(a, &path);
        status = *field != NULL ? DONE : FAILED;
    }
    buffer_free(&path);
    return status;
}

/* Pictures and videos take the budget that was given before them, or else the next one. */
static int add_input(arguments *a, const setting *s)
{
    buffer path = { 0 };
    input_kind kind = (input_kind)s->o->target;
    const char *value = s->value;
    int status = kind == INPUT_TEXT ? DONE : path_read(value, &path);
    if (status == DONE && kind != INPUT_TEXT && path.len == 0) status = wrong_value(s, "the name of a file");
    if (status == DONE && kind != INPUT_TEXT) value = arguments_keep(a, &path);
    if (status == DONE && value != NULL)
        a->inputs[a->n_inputs++] = (input) { kind, value, media_budget(a, input_part(kind)) };
    buffer_free(&path);
    return status == DONE && value == NULL ? FAILED : status;
}

static int add_stop(arguments *a, const setting *s)
{
    if (s->value[0] == '\0') return wrong_value(s, "a text that is not empty");
    if (a->n_stop == MAX_LIST) return say(USAGE, "%smore than %d of --stop", s->where, MAX_LIST);
    a->stop[a->n_stop++] = s->value;
    return DONE;
}

static int add_bias(arguments *a, const setting *s)
{
    char *end;
    double x = 0;
    long id = strtol(s->value, &end, 10);
    if (end == s->value || *end != ':' || id < 0 || id > INT_MAX || parse_number(end + 1, &x)) {
        return wrong_value(s, "ID:X, a token id and a number");
    }
    if (a->n_bias == MAX_LIST) return say(USAGE, "%smore than %d of --logit-bias", s->where, MAX_LIST);
    a->bias[a->n_bias++] = (g4_logit_bias) { (g4_token)id, (float)x };
    return DONE;
}

static int set_kv(const setting *s, int *field)
{
    if (strcmp(s->value, "f16") == 0)
        *field = G4_KV_USE_F16;
    else if (strcmp(s->value, "f32") == 0)
        *field = G4_KV_USE_F32;
    else if (strcmp(s->value, "q8_0") == 0)
        *field = G4_KV_USE_Q8_0;
    else
        return wrong_value(s, "f16, f32 or q8_0");
    return DONE;
}

static int set_budget(arguments *a, const setting *s, int *field)
{
    static const int budgets[] = { 70, 140, 280, 560, 1120 };
    double x = 0;
    int known = 0;
    for (size_t i = 0; !parse_number(s->value, &x) && i < sizeof budgets / sizeof budgets[0]; i++) {
        known |= x == budgets[i];
    }
    if (!known) return wrong_value(s, "70, 140, 280, 560 or 1120");
    *field = (int)x;
    for (int i = 0; i < a->n_inputs; i++) {
        if (a->inputs[i].budget == 0) a->inputs[i].budget = media_budget(a, input_part(a->inputs[i].kind));
    }
    return DONE;
}

static int set_think(const setting *s, int *field)
{
    int limit = 0;
    if (s->value != NULL && parse_whole(s->value, 1, INT_MAX - 1, &limit))
        return wrong_value(s, "a whole number from 1");
    *field = 1 + limit;
    return DONE;
}

static int set_json(const setting *s, int *field)
{
    if (s->value != NULL && strcmp(s->value, "openai") != 0) return wrong_value(s, "openai, or nothing");
    *field = s->value != NULL ? JSON_OPENAI : 1;
    return DONE;
}

static int set_bytes(const setting *s, uint64_t *field)
{
    static const char units[] = "KMG";
    const size_t n = strlen(s->value);
    const char *unit = n > 1 ? strchr(units, s->value[n - 1]) : NULL;
    char number[32];
    double x = 0;
    const size_t digits = n - (unit != NULL);
    snprintf(number, sizeof number, "%.*s", (int)digits, s->value);
    if (digits >= sizeof number || parse_number(number, &x) || x != floor(x))
        return wrong_value(s, "a whole number of bytes, as 64M");
    for (const char *u = units; unit != NULL && u <= unit; u++) x *= 1024;
    if (x < s->o->min || x > s->o->max) return wrong_value(s, "a whole number of bytes, from 1K to 2G");
    *field = (uint64_t)x;
    return DONE;
}

int option_set(arguments *a, const option *o, const char *value, const char *where)
{
    const setting s = { o, value, where };
    switch (o->kind) {
    case OPTION_HEADING: break;
    case OPTION_FLAG: *int_field(a, o) = 1; break;
    case OPTION_TEXT: *text_field(a, o) = value; break;
    case OPTION_PATH: return set_path(a, &s, text_field(a, o));
    case OPTION_INPUT: return add_input(a, &s);
    case OPTION_INT:
    case OPTION_CONTEXT: return set_int(&s, int_field(a, o));
    case OPTION_NUMBER: return set_number(&s, number_field(a, o));
    case OPTION_SEED: return set_seed(a, &s);
    case OPTION_STOP: return add_stop(a, &s);
    case OPTION_BIAS: return add_bias(a, &s);
    case OPTION_KV: return set_kv(&s, int_field(a, o));
    case OPTION_BUDGET: return set_budget(a, &s, int_field(a, o));
    case OPTION_THINK: return set_think(&s, int_field(a, o));
    case OPTION_JSON: return set_json(&s, int_field(a, o));
    case OPTION_BYTES: return set_bytes(&s, (uint64_t *)(void *)((char *)a + o->target));
    }
    return DONE;
}

const char *is_given(const arguments *a, size_t field)
{
    for (int i = 0; i < a->syntax->n_options; i++) {
        const option *o = &a->syntax->options[i];
        if (a->given[i] && o->target == field && o->kind != OPTION_INPUT) return option_name(o);
    }
    return NULL;
}

/* ---- Names ---------------------------------------------------------------------------------------------- */

/* How many letters are to be put in, left out, replaced, or swapped with their neighbours, to make b of a. */
static int distance(const char *a, const char *b)
{
    int rows[3][MAX_NAME + 1] = { { 0 } }, n = (int)strlen(a), m = (int)strlen(b);
    if (n > MAX_NAME || m > MAX_NAME) return MAX_NAME;
    for (int j = 0; j <= m; j++) rows[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *row = rows[i % 3], *above = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best) best = above[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            int swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && before[j - 2] + 1 < best) best = before[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[n % 3][m];
}

int name_near(const char *name, const char *meant)
{
    int n = (int)strlen(name), far = distance(name, meant);
    if (n >= 3 && strncmp(name, meant, (size_t)n) == 0) return 1;
    return far <= (n < 6 ? 1 : n / 3) ? far : MAX_NAME;
}

void add_near_option(buffer *out, const syntax *x, const char *name, unsigned bits)
{
    const char *best = NULL;
    int least = MAX_NAME;
    for (int i = 0; i < x->n_options; i++) {
        const option *o = &x->options[i];
        int far = o->name != NULL && (o->commands & bits) != 0 ? name_near(name, o->name + 2) : MAX_NAME;
        if (far >= least) continue;
        least = far;
        best = o->name;
    }
    if (best != NULL) buffer_fmt(out, " (do you mean %s?)", best);
}

const option *option_find(const syntax *x, const char *name, size_t len, unsigned bit)
{
    const option *found = NULL;
    for (int i = 0; i < x->n_options; i++) {
        const option *o = &x->options[i];
        int by_letter = o->letter != NULL && strlen(o->letter) == len && strncmp(name, o->letter, len) == 0;
        int by_name = o->name != NULL && strlen(o->name) == len && strncmp(name, o->name, len) == 0;
        if ((by_letter || by_name) && (found == NULL || ((o->commands & bit) != 0 && (found->commands & bit) == 0)))
            found = o;
    }
    return found;
}

const cli_command *command_find(const syntax *x, const char *name)
{
    for (int i = 1; i < x->n_commands; i++) {
        if (strcmp(name, x->commands[i].name) == 0) return &x->commands[i];
    }
    return NULL;
}
