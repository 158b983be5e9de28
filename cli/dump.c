/* dump.c - activations into a file: a tap that keeps what it is shown, tensor by tensor, and a writer of safetensors,
 * the format in which Python reads them with one line. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

struct dump_tensor {
    buffer name, values;
    size_t n_rows, n_cols;
    int is_ids;
};

void dump_free(dump *d)
{
    for (size_t i = 0; i < d->n; i++) {
        buffer_free(&d->tensors[i].name);
        buffer_free(&d->tensors[i].values);
    }
    free(d->tensors);
    *d = (dump) { 0 };
}

/* ---- What the tap is shown ------------------------------------------------------------------------- */

/* "l.3.attn_out", "vision.l.2.layer_out", "embed": the layer stands in front of the last word. */
static void tensor_name(buffer *out, const g4_tap *tap)
{
    const char *dot = strchr(tap->name, '.'), *word = dot != NULL ? dot + 1 : tap->name;
    buffer_add(out, tap->name, (size_t)(word - tap->name));
    if (tap->layer >= 0) buffer_fmt(out, "l.%d.", tap->layer);
    buffer_str(out, word);
}

/* The tensor of that name, a new one if there is none; NULL when memory is out. Taps come in the order of tensors: the
 * next one is mostly the one behind the last. */
static dump_tensor *find_tensor(dump *d, const g4_tap *tap)
{
    buffer name = { 0 };
    tensor_name(&name, tap);
    for (size_t i = 0; i < d->n && !name.failed; i++) {
        size_t index = (d->last + i) % d->n;
        if (strcmp(d->tensors[index].name.data, name.data) != 0) continue;
        d->last = index;
        buffer_free(&name);
        return &d->tensors[index];
    }
    dump_tensor *grown = name.failed ? NULL : realloc(d->tensors, (d->n + 1) * sizeof *grown);
    if (grown == NULL) {
        buffer_free(&name);
        return NULL;
    }
    d->tensors = grown;
    d->last = d->n;
    grown[d->n] = (dump_tensor) { .name = name, .n_cols = (size_t)tap->n_cols, .is_ids = tap->ids != NULL };
    return &grown[d->n++];
}

void dump_tap(void *user, const g4_tap *tap)
{
    dump *d = user;
    dump_tensor *t = d->failed ? NULL : find_tensor(d, tap);
    d->failed = t == NULL;
    for (size_t row = 0; row < (size_t)tap->n_rows && !d->failed; row++) {
        if (t->is_ids)
            buffer_add(&t->values, tap->ids + row * tap->stride, t->n_cols * sizeof *tap->ids);
        else
            buffer_add(&t->values, tap->values + row * tap->stride, t->n_cols * sizeof *tap->values);
        t->n_rows++;
        d->failed = t->values.failed;
    }
}

/* ---- safetensors ------------------------------------------------------------------------------------- */

/* The header: one JSON object, in which each tensor has its type, its shape, and where its bytes begin and end behind
 * the header. Blanks fill it up, so that they begin at a multiple of 8. */
static void make_header(const dump *d, buffer *out)
{
    size_t begin = 0;
    buffer_str(out, "{");
    for (size_t i = 0; i < d->n; i++) {
        const dump_tensor *t = &d->tensors[i];
        size_t end = begin + t->values.len;
        buffer_fmt(out, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%zu,%zu],\"data_offsets\":[%zu,%zu]}", i > 0 ? "," : "",
                   t->name.data, t->is_ids ? "I32" : "F32", t->n_rows, t->n_cols, begin, end);
        begin = end;
    }
    buffer_str(out, "}");
    while (out->len % 8 != 0) buffer_str(out, " ");
}

int dump_write(const dump *d, output_file *out)
{
    buffer header = { 0 };
    unsigned char length[8];
    if (!d->failed) make_header(d, &header);
    if (d->failed || header.failed) {
        buffer_free(&header);
        return say(FAILED, "no memory for the activations: dump fewer tokens");
    }
    for (size_t i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)header.len >> (8 * i));
    output_write(out, length, sizeof length);
    output_write(out, header.data, header.len);
    for (size_t i = 0; i < d->n; i++) output_write(out, buffer_text(&d->tensors[i].values), d->tensors[i].values.len);
    buffer_free(&header);
    return DONE;
}
