/* raw.c - text that goes on without a chat template: base models, and --raw. Its media stand in it as in the prompts of
 * a chat (MODEL.md, 11): soft tokens between their markers, frames behind their times. */
#include "cli.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const conversation *c;
    buffer plain;      /* text that is not tokens yet: pieces that meet become tokens together */
    buffer ids, media; /* g4_token, g4_medium */
    soft_list *files;  /* (n_inputs) */
} raw_prompt;

static void raw_free(raw_prompt *p)
{
    for (int i = 0; p->files != NULL && i < p->c->args->n_inputs; i++) soft_list_free(p->c->engine, &p->files[i]);
    free(p->files);
    buffer_free(&p->plain);
    buffer_free(&p->ids);
    buffer_free(&p->media);
}

static size_t raw_length(const raw_prompt *p) { return p->ids.len / sizeof(g4_token); }

/* The text so far as tokens. text_tokens puts BOS in front, which is left out here. */
static int raw_flush(raw_prompt *p)
{
    g4_token *ids = NULL;
    size_t n = 0;
    int status = p->plain.failed ? say(FAILED, "no memory for the prompt") : DONE;
    if (status == DONE) status = text_tokens(p->c->engine, &p->plain, p->c->args->specials, &ids, &n);
    if (status == DONE) status = buffer_add_long(&p->ids, ids + 1, (n - 1) * sizeof *ids);
    p->plain.len = 0;
    free(ids);
    return status;
}

static int raw_control(raw_prompt *p, const char *name)
{
    int status = raw_flush(p);
    g4_token id = control_token(p->c->engine, name);
    if (status == DONE && id < 0) status = say(FAILED, "the model's vocabulary has no token %s", name);
    if (status == DONE) buffer_add(&p->ids, &id, sizeof id);
    return status;
}

static int raw_soft(raw_prompt *p, g4_soft *soft, const char *begin, const char *end)
{
    int status = raw_control(p, begin);
    g4_medium placed = { (int)raw_length(p), soft };
    g4_token token = g4_soft_token(soft);
    buffer_add(&p->media, &placed, sizeof placed);
    for (int i = 0; i < g4_soft_n(soft); i++) buffer_add(&p->ids, &token, sizeof token);
    return status == DONE ? raw_control(p, end) : status;
}

static int raw_medium(raw_prompt *p, const input *in, soft_list *s)
{
    int status = soft_list_encode(s, p->c->engine, p->c->args, in, p->c->info.has_audio);
    for (int i = 0; status == DONE && i < s->n; i++) {
        int is_frame = i < s->n_frames;
        if (is_frame) {
            long long seconds = (long long)s->times[i];
            buffer_fmt(&p->plain, "%s%02lld:%02lld ", i > 0 ? " " : "", seconds / 60, seconds % 60);
        }
        if (is_frame || in->kind == INPUT_IMAGE)
            status = raw_soft(p, s->soft[i], "<|image>", "<image|>");
        else
            status = raw_soft(p, s->soft[i], "<|audio>", "<audio|>");
    }
    return status;
}

/* The inputs in order; without a text, standard input is the text behind them. */
static int raw_make(raw_prompt *p)
{
    const arguments *a = p->c->args;
    int status = DONE;
    p->files = calloc((size_t)a->n_inputs + 1, sizeof *p->files);
    if (p->files == NULL) return say(FAILED, "no memory for the prompt");
    if (g4_session_n(p->c->session) == 0) buffer_add(&p->ids, &p->c->info.bos, sizeof p->c->info.bos);
    for (int i = 0; status == DONE && i < a->n_inputs; i++) {
        const input *in = &a->inputs[i];
        if (in->kind == INPUT_TEXT)
            buffer_str(&p->plain, in->value);
        else if (in->kind == INPUT_FILE)
            status = text_read(in->value, &p->plain);
        else
            status = raw_medium(p, in, &p->files[i]);
    }
    if (status == DONE && inputs_want_text(a)) status = text_read("-", &p->plain);
    if (status == DONE) status = raw_flush(p);
    if (status == DONE && (p->ids.failed || p->media.failed)) status = say(FAILED, "no memory for the prompt");
    if (status == DONE && raw_length(p) > INT_MAX) status = say(FAILED, "the prompt is too long");
    if (status == DONE && g4_session_n(p->c->session) == 0 && raw_length(p) == 1)
        status = say(FAILED, "the prompt is empty: there is nothing to go on from");
    return status;
}

/* Evaluate the prompt behind what the session holds, and set the prompt's figures. */
static int raw_read(conversation *c, figures *f)
{
    raw_prompt p = { .c = c };
    g4_error err;
    int status = conversation_open(c, c->args->session);
    if (status == DONE) status = raw_make(&p);
    if (status == DONE) {
        double start = seconds_now();
        g4_prompt prompt = { .tokens = (const g4_token *)(const void *)p.ids.data,
                             .n = (int)raw_length(&p),
                             .media = (const g4_medium *)(const void *)p.media.data,
                             .n_media = (int)(p.media.len / sizeof(g4_medium)) };
        f->reused = g4_session_n(c->session);
        if (prompt.n > 0 && g4_session_eval_prompt(c->session, &prompt, &err) != G4_OK) status = report(&err);
        progress_end(&c->progress);
        f->prompt_tokens = g4_session_n(c->session);
        f->prompt_seconds = seconds_now() - start;
    }
    raw_free(&p);
    return status;
}

/* What --json-schema or --grammar make of the text that follows; *guide stays NULL without them. */
static int raw_guide(conversation *c, g4_guide **guide)
{
    g4_error err;
    int status = conversation_grammar(c);
    if (status != DONE || c->guide.grammar == NULL) return status;
    return g4_guide_open_text(guide, c->engine, c->guide.grammar, &err) == G4_OK ? DONE : report(&err);
}

int answer_raw(conversation *c)
{
    const arguments *a = c->args;
    answer_writer w = { .args = a, .engine = c->engine };
    g4_guide *guide = NULL;
    figures f = { .finish = "interrupted", .is_cut = 1 }; /* until there is an answer */
    if (inputs_want_text(a) && !a->quiet && isatty(STDIN_FILENO))
        say(DONE, "type the text to continue; Ctrl-D ends it");
    int status = raw_guide(c, &guide);
    w.is_guided = guide != NULL;
    if (status == DONE) status = raw_read(c, &f);
    if (status == DONE) status = answer_generate(&w, c->session, g4_guide_constraint(guide), &f);
    if (status == DONE || (a->json && status == interrupted())) status = answer_end(&w, &f, "");
    if (status == DONE) status = interrupted();
    if (status == DONE && a->session != NULL) status = conversation_save(c, a->session);
    answer_free(&w);
    g4_guide_close(guide);
    return status;
}
