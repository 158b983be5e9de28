/* tiny.h - one answer of the bundled model: a conversation as a line of JSON, its media named by path, to the whole
 * reply with its markers, the most likely token each time. Shared by test_tiny.c and answer_lines.c. */
#ifndef G4_TINY_H
#define G4_TINY_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat/chat.h"

enum { G4_TINY_MEDIA = 8, G4_TINY_TOKENS = 320 };

typedef struct {
    g4_buf text;  /* without the stop token */
    float margin; /* smallest distance of the best logit to the second best */
    double nll;   /* mean negative log-likelihood of the chosen tokens */
    int n;
    float *first; /* log-probabilities of the first token, n_vocab of them; the caller frees */
    int n_vocab;
} g4_tiny_answer;

typedef struct {
    g4_image image[G4_TINY_MEDIA];
    g4_audio audio[G4_TINY_MEDIA];
    g4_video video[G4_TINY_MEDIA];
} g4_tiny_media;

static inline g4_status g4_tiny_load(g4_chat *c, g4_tiny_media *m, g4_error *err)
{
    int n = g4_chat_n_media(c);
    if (n > G4_TINY_MEDIA) return g4_fail(err, G4_ERR_ARGUMENT, "%d media: at most %d", n, (int)G4_TINY_MEDIA);
    for (int i = 0; i < n; i++) {
        g4_chat_medium medium;
        g4_status st = g4_chat_media(c, i, &medium, err);
        if (st == G4_OK && medium.source == NULL) st = g4_fail(err, G4_ERR_ARGUMENT, "medium %d has no path", i);
        if (st != G4_OK) return st;
        if (medium.kind == G4_PART_IMAGE) {
            st = g4_image_load(&m->image[i], medium.source, NULL, err);
            if (st == G4_OK) st = g4_chat_set_image(c, i, &m->image[i], err);
        } else if (medium.kind == G4_PART_AUDIO) {
            st = g4_audio_load(&m->audio[i], medium.source, NULL, err);
            if (st == G4_OK) st = g4_chat_set_audio(c, i, &m->audio[i], err);
        } else {
            st = g4_video_load(&m->video[i], medium.source, NULL, err);
            if (st == G4_OK) st = g4_chat_set_video(c, i, &m->video[i], err);
        }
        if (st != G4_OK) return st;
    }
    return G4_OK;
}

/* The most likely tokens until one that ends a turn. */
static inline g4_status g4_tiny_decode(g4_session *s, g4_engine *e, g4_tiny_answer *out, g4_error *err)
{
    g4_engine_info info;
    g4_engine_get_info(e, &info);
    out->margin = 1e9f;
    for (out->n = 0; out->n < G4_TINY_TOKENS;) {
        const float *z = g4_session_logits(s);
        g4_token best = 0;
        float second = -1e9f;
        for (g4_token i = 1; i < info.n_vocab; i++) {
            if (z[i] > z[best]) {
                second = z[best];
                best = i;
            } else if (z[i] > second) {
                second = z[i];
            }
        }
        double sum = 0;
        for (g4_token i = 0; i < info.n_vocab; i++) sum += exp((double)z[i] - z[best]);
        out->nll += log(sum);
        if (out->n == 0) {
            out->n_vocab = info.n_vocab;
            out->first = malloc((size_t)info.n_vocab * sizeof *out->first);
            if (out->first == NULL) return g4_fail(err, G4_ERR_MEMORY, "out of memory");
            for (g4_token i = 0; i < info.n_vocab; i++) out->first[i] = (float)((double)z[i] - z[best] - log(sum));
        }
        out->n++;
        if (z[best] - second < out->margin) out->margin = z[best] - second;
        char bytes[257];
        size_t n = g4_token_bytes(e, best, 0, bytes);
        bytes[n] = 0;
        if (best == info.eos || strcmp(bytes, "<turn|>") == 0 || strcmp(bytes, "<|tool_response>") == 0) break;
        g4_buf_add(&out->text, bytes, n);
        g4_status st = g4_session_eval(s, &best, 1, err);
        if (st != G4_OK) return st;
    }
    out->nll /= out->n;
    return G4_OK;
}

static inline g4_status g4_tiny_ask(g4_session *s, g4_engine *e, const char *json, size_t len, g4_tiny_answer *out,
                                    g4_error *err)
{
    g4_chat *c = NULL;
    g4_tiny_media *m = calloc(1, sizeof *m);
    memset(out, 0, sizeof *out);
    if (m == NULL) return g4_fail(err, G4_ERR_MEMORY, "out of memory");
    g4_status st = g4_chat_parse(&c, e, json, len, NULL, err);
    if (st == G4_OK) st = g4_tiny_load(c, m, err);
    if (st == G4_OK) st = g4_session_sync_chat(s, c, NULL, err);
    if (st == G4_OK) st = g4_tiny_decode(s, e, out, err);
    g4_chat_close(c);
    for (int i = 0; i < G4_TINY_MEDIA; i++) {
        g4_image_free(&m->image[i], NULL);
        g4_audio_free(&m->audio[i], NULL);
        g4_video_free(&m->video[i], NULL);
    }
    free(m);
    return st;
}

/* The next line of f without its end, in *line (grown by realloc). 0 at the end of the file. */
static inline int g4_tiny_line(FILE *f, char **line, size_t *cap, size_t *len)
{
    *len = 0;
    for (int ch; (ch = getc(f)) != EOF && ch != '\n';) {
        if (*len + 2 > *cap) {
            size_t n = *cap == 0 ? 4096 : *cap * 2;
            char *p = realloc(*line, n);
            if (p == NULL) return 0;
            *line = p;
            *cap = n;
        }
        (*line)[(*len)++] = (char)ch;
    }
    if (*len > 0) (*line)[*len] = 0;
    return *len > 0;
}

#endif
