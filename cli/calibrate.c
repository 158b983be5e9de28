/* calibrate.c - the mean square of each input column of every matrix of the decoder over the tokens of a text, into a
 * file of safetensors (docs/formats.md, "Statistics"): export.py weighs the errors of its rounding with it. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Sums ------------------------------------------------------------------------------------------- */

typedef struct { /* what a tensor's matrices were multiplied with */
    char *name;
    size_t n, n_cols; /* matrices, one or a stack of experts; their columns */
    double *sums;     /* (n, n_cols): of the squares */
    uint64_t *counts; /* (n): rows */
} column_sums;

typedef struct {
    column_sums *tensors;
    size_t n, last; /* last: the tensor that was found last */
} statistics;

static void sums_free(column_sums *c)
{
    free(c->name);
    free(c->sums);
    free(c->counts);
}

static void statistics_free(statistics *s)
{
    for (size_t i = 0; i < s->n; i++) sums_free(&s->tensors[i]);
    free(s->tensors);
    *s = (statistics) { 0 };
}

/* Room for every tensor that is multiplied. */
static int statistics_open(statistics *s, const g4_engine *e)
{
    g4_tensor_info t;
    for (int i = 0; g4_engine_get_tensor(e, i, &t); i++) {
        if (strcmp(t.layout, "groups16") != 0) continue;
        column_sums *grown = realloc(s->tensors, (s->n + 1) * sizeof *grown);
        if (grown == NULL) return say(FAILED, "no memory for the statistics");
        s->tensors = grown;
        column_sums *c = &grown[s->n++];
        *c = (column_sums) { .n = t.n_dims == 3 ? (size_t)t.dims[0] : 1, .n_cols = (size_t)t.dims[t.n_dims - 1] };
        c->name = strdup(t.name);
        c->sums = calloc(c->n * c->n_cols, sizeof *c->sums);
        c->counts = calloc(c->n, sizeof *c->counts);
        if (c->name == NULL || c->sums == NULL || c->counts == NULL) return say(FAILED, "no memory for the statistics");
    }
    return DONE;
}

/* Products come in the order of tensors: the next one is mostly the one behind the last. */
static column_sums *find_sums(statistics *s, const char *name)
{
    for (size_t i = 0; i < s->n; i++) {
        size_t index = (s->last + i) % s->n;
        if (strcmp(s->tensors[index].name, name) != 0) continue;
        s->last = index;
        return &s->tensors[index];
    }
    return NULL;
}

static void on_inputs(void *user, const g4_inputs *in)
{
    statistics *s = user;
    column_sums *c = find_sums(s, in->name);
    if (c == NULL) return;
    double *sums = c->sums + (size_t)in->matrix * c->n_cols;
    for (int row = 0; row < in->n_rows; row++) {
        const float *x = in->values + (size_t)row * in->stride;
        for (size_t i = 0; i < c->n_cols; i++) sums[i] += (double)x[i] * (double)x[i];
    }
    c->counts[in->matrix] += (uint64_t)in->n_rows;
}

/* ---- The text ---------------------------------------------------------------------------------------- */

enum { WINDOW = 512 }; /* tokens that are read together, BOS among them: what -c says otherwise */

typedef struct {
    int shows; /* on a terminal */
    size_t done, n;
} calibration_progress;

static int on_tokens(void *user, uint64_t done, uint64_t total)
{
    const calibration_progress *p = user;
    (void)total; /* of this window */
    if (p->shows) fprintf(stderr, "\rmeasuring: %zu of %zu tokens", p->done + (size_t)done, p->n);
    return interrupted();
}

/* Every token of the text once, in windows that begin with BOS. */
static int read_windows(g4_session *s, const g4_token *ids, size_t n, g4_token bos, calibration_progress *p)
{
    g4_error err;
    size_t window = (size_t)g4_session_n_ctx(s), step = window > 1 ? window - 1 : 1;
    g4_token *tokens = calloc(window + 1, sizeof *tokens);
    int status = tokens != NULL ? DONE : say(FAILED, "no memory for %zu tokens", window);
    p->n = n;
    for (; status == DONE && p->done < n; p->done += step) {
        size_t k = n - p->done < step ? n - p->done : step, first = window > 1 ? 1 : 0;
        tokens[0] = bos;
        memcpy(tokens + first, ids + p->done, k * sizeof *tokens);
        if (g4_session_rewind(s, 0, &err) != G4_OK || g4_session_eval(s, tokens, (int)(k + first), &err) != G4_OK)
            status = report(&err);
    }
    if (p->shows) fputs("\r\033[K", stderr);
    free(tokens);
    return status;
}

/* The text of -f, or the one that comes with the program. */
static int calibration_text(const arguments *a, buffer *text)
{
    static const char name[] = "calibration.txt";
    buffer path = { 0 };
    int status = DONE;
    if (a->n_inputs > 0)
        status = inputs_text(a, text);
    else if (companion_find("models/calibration.txt", &path) || companion_find(name, &path))
        status = text_read(path.data, text);
    else
        status = say(USAGE, "%s, the text that comes with the program, is not there: give one with -f FILE", name);
    buffer_free(&path);
    return status;
}

/* ---- safetensors -------------------------------------------------------------------------------------- */

static void add_tensor(buffer *out, const column_sums *c, const char *suffix, const char *type, size_t begin,
                       size_t end)
{
    buffer_fmt(out, ",\"%s%s\":{\"dtype\":\"%s\",\"shape\":[%zu", c->name, suffix, type, c->n);
    if (suffix[0] == '\0') buffer_fmt(out, ",%zu", c->n_cols);
    buffer_fmt(out, "],\"data_offsets\":[%zu,%zu]}", begin, end);
}

/* 8 bytes at a time from the lowest on. */
static void add_u64(buffer *out, uint64_t x)
{
    unsigned char bytes[8];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (unsigned char)(x >> (8 * i));
    buffer_add(out, bytes, sizeof bytes);
}

/* Counts, then mean squares: so both begin where their types are aligned. */
static void make_file(const statistics *s, size_t n_tokens, buffer *header, buffer *data)
{
    buffer_fmt(header, "{\"__metadata__\":{\"format\":\"gemma4 statistics 1\",\"tokens\":\"%zu\"}", n_tokens);
    for (size_t i = 0; i < s->n; i++) {
        size_t begin = data->len;
        for (size_t k = 0; k < s->tensors[i].n; k++) add_u64(data, s->tensors[i].counts[k]);
        add_tensor(header, &s->tensors[i], ".count", "I64", begin, data->len);
    }
    for (size_t i = 0; i < s->n; i++) {
        const column_sums *c = &s->tensors[i];
        size_t begin = data->len;
        for (size_t k = 0; k < c->n * c->n_cols; k++) {
            uint64_t count = c->counts[k / c->n_cols];
            float mean = count > 0 ? (float)(c->sums[k] / (double)count) : 0;
            buffer_add(data, &mean, sizeof mean); /* machines are little-endian, as the model file */
        }
        add_tensor(header, c, "", "F32", begin, data->len);
    }
    buffer_str(header, "}");
    while (header->len % 8 != 0) buffer_str(header, " ");
}

static int write_statistics(const statistics *s, size_t n_tokens, const char *path)
{
    buffer header = { 0 }, data = { 0 }, length = { 0 };
    output_file out = { 0 };
    make_file(s, n_tokens, &header, &data);
    add_u64(&length, header.len);
    int status = header.failed || data.failed || length.failed ? say(FAILED, "no memory for the statistics")
                                                               : output_open(&out, path);
    if (status == DONE) {
        output_write(&out, length.data, length.len);
        output_write(&out, header.data, header.len);
        output_write(&out, data.data, data.len);
    }
    status = output_close(&out, status);
    buffer_free(&header);
    buffer_free(&data);
    buffer_free(&length);
    return status;
}

/* Tensors that no token reached: those of the towers, which a text does not pass. */
static void drop_unused(statistics *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        uint64_t total = 0;
        for (size_t k = 0; k < s->tensors[i].n; k++) total += s->tensors[i].counts[k];
        if (total > 0)
            s->tensors[n++] = s->tensors[i];
        else
            sums_free(&s->tensors[i]);
    }
    s->n = n;
}

int run_calibrate(arguments *a)
{
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_engine_info info;
    g4_error err;
    buffer text = { 0 };
    g4_token *ids = NULL;
    size_t n = 0;
    statistics stats = { 0 };
    const g4_taps taps = { .inputs = on_inputs, .user = &stats };
    if (a->output == NULL) return say(USAGE, "calibrate needs -o FILE");
    int status = calibration_text(a, &text);
    if (status == DONE) status = model_open(&e, a);
    if (status == DONE) status = text_tokens(e, &text, 0, &ids, &n);
    if (status == DONE && n == 1) status = say(FAILED, "the text is empty: nothing to measure");
    if (status == DONE) status = statistics_open(&stats, e);
    progress_line unused;
    calibration_progress progress = { .shows = !a->quiet && terminal_draws(STDERR_FILENO) };
    g4_session_options setup = session_options(a, &unused);
    setup.progress = on_tokens;
    setup.user = &progress;
    setup.taps = &taps;
    if (setup.n_ctx == 0) setup.n_ctx = WINDOW;
    if (status == DONE && g4_session_open(&s, e, &setup, &err) != G4_OK) status = report(&err);
    g4_engine_get_info(e, &info);
    if (status == DONE) status = read_windows(s, ids + 1, n - 1, info.bos, &progress);
    g4_session_close(s);
    drop_unused(&stats);
    if (status == DONE) status = write_statistics(&stats, n - 1, a->output);
    if (status == DONE && !a->quiet)
        say(DONE, "%s: %zu tensors over %zu tokens", strcmp(a->output, "-") == 0 ? "statistics" : a->output, stats.n,
            n - 1);
    statistics_free(&stats);
    free(ids);
    buffer_free(&text);
    g4_engine_close(e);
    return status;
}
