/* transcribe.c - /v1/audio/transcriptions: a sound of any length becomes the text of its blocks, each of which is an
 * answer of its own, so that its times are known. */
#include "serve.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RATE = 16000, LEAST_SAMPLES = 161 };
typedef enum { FORM_JSON, FORM_TEXT, FORM_VERBOSE } text_form;

typedef struct {
    text_form form;
    char language[32];
    double temperature;
    buffer request; /* what the model is asked */
    g4_media_options how;
    g4_audio sound;
    int is_refused; /* it was answered */
    g4_audio block;
    double start;
    buffer text, segments;
    int n_segments;
} transcription;

/* ---- The form ---------------------------------------------------------------------------------------------------- */

static void refuse(connection *c, transcription *t, int status, const char *param, const char *why)
{
    connection_error(c, status, param, "%s: %s", param, why);
    t->is_refused = 1;
}

static int is_field(const multipart_part *p, const char *name) { return strcmp(p->name, name) == 0; }

/* The text of a field, in a buffer of that size; 0: it is too long, or holds a NUL. */
static int copy_field(const multipart_part *p, char *out, size_t size)
{
    if (p->len >= size || memchr(p->data, '\0', p->len) != NULL) return 0;
    memcpy(out, p->data, p->len);
    out[p->len] = '\0';
    return 1;
}

static void read_sound(connection *c, transcription *t, const multipart_part *p)
{
    g4_error err;
    if (t->sound.samples != NULL) {
        refuse(c, t, 400, "file", "expected one sound, found two");
    } else if (g4_audio_decode(&t->sound, p->data, p->len, &t->how, &err) != G4_OK) {
        refuse(c, t, 400, "file", err.message);
    }
}

static void read_form(connection *c, transcription *t, const multipart_part *p)
{
    static const char *const names[] = { "json", "text", "verbose_json" };
    char text[32];
    size_t i = 0;
    if (!copy_field(p, text, sizeof text)) text[0] = '\0';
    while (i < 3 && strcmp(text, names[i]) != 0) i++;
    if (i == 3)
        refuse(c, t, 400, "response_format", "expected json, text or verbose_json");
    else
        t->form = (text_form)i;
}

static void read_temperature(connection *c, transcription *t, const multipart_part *p)
{
    static const char digits[] = "0123456789.eE+-"; /* no hexadecimal ones, no blanks */
    char text[32], *end = text;
    const int is_text = copy_field(p, text, sizeof text) && text[strspn(text, digits)] == '\0';
    if (is_text) t->temperature = strtod(text, &end);
    if (!is_text || end == text || *end != '\0' || !(t->temperature >= 0 && t->temperature <= 1e6))
        refuse(c, t, 400, "temperature", "expected a number from 0");
}

/* Is the field that word, whatever its case? Python says False. */
static int says(const multipart_part *p, const char *word)
{
    char text[32];
    return copy_field(p, text, sizeof text) && http_same(text, word);
}

static void read_field(connection *c, transcription *t, const multipart_part *p)
{
    if (is_field(p, "file"))
        read_sound(c, t, p);
    else if (is_field(p, "response_format"))
        read_form(c, t, p);
    else if (is_field(p, "temperature"))
        read_temperature(c, t, p);
    else if (is_field(p, "language") && !copy_field(p, t->language, sizeof t->language))
        refuse(c, t, 400, "language", "expected a name or code of at most 31 bytes");
    else if (is_field(p, "prompt") && p->len > 0 && memchr(p->data, '\0', p->len) != NULL)
        refuse(c, t, 400, "prompt", "a text must not hold a NUL");
    else if (is_field(p, "prompt"))
        buffer_add(&t->request, p->data, p->len);
    else if (is_field(p, "stream") && !says(p, "false"))
        refuse(c, t, 400, "stream", "expected false: a transcription is not streamed here");
    else if (is_field(p, "timestamp_granularities[]") && !says(p, "segment"))
        refuse(c, t, 400, "timestamp_granularities[]", "expected segment: words have no times here");
}

/* All fields; `j` ends the decoding when the client goes. */
static void read_fields(connection *c, served_job *j, void *user)
{
    transcription *t = user;
    const http_request *r = &c->request;
    multipart m;
    multipart_part part;
    int more = 1;
    t->how = media_options(c->s->args, 0);
    t->how.limits = j->work.limits;
    if (!c->s->shop.info.has_audio) {
        refuse(c, t, 400, "model", "it has no ears");
    } else if (!multipart_open(&m, http_get(r, "content-type"), buffer_text(&r->body), r->body.len)) {
        refuse(c, t, 400, "Content-Type", "expected multipart/form-data with its boundary");
    }
    while (!t->is_refused && (more = multipart_next(&m, &part)) > 0) read_field(c, t, &part);
    if (t->is_refused) return;
    if (more < 0)
        refuse(c, t, 400, "body", "expected the parts of multipart/form-data, each with its name");
    else if (t->sound.samples == NULL)
        refuse(c, t, 400, "file", "expected a sound, found none");
    else if (t->sound.n_samples < LEAST_SAMPLES)
        refuse(c, t, 400, "file", "the sound is too short");
}

/* ---- The blocks -------------------------------------------------------------------------------------------------- */

static g4_status make_prompt(request_work *w, const transcription *t)
{
    buffer ask = { 0 };
    g4_status status = G4_ERR_MEMORY;
    buffer_str(&ask, "Transcribe the speech in this audio.");
    if (t->language[0] != '\0') buffer_fmt(&ask, " The language is %s.", t->language);
    if (t->request.len > 0) buffer_fmt(&ask, " %s", buffer_text(&t->request));
    const g4_part parts[] = { { .kind = G4_PART_AUDIO, .audio = &t->block },
                              { .kind = G4_PART_TEXT, .text = buffer_text(&ask) } };
    const g4_message asked = { .role = G4_ROLE_USER, .parts = parts, .n_parts = 2 };
    const g4_chat_options opt = { .limits = w->limits };
    if (ask.failed)
        request_wrong(w, status, NULL, "no memory for the request");
    else
        status = g4_chat_open(&w->chat, w->shop->engine, &asked, 1, &opt, &w->error);
    if (status == G4_OK) status = g4_chat_prompt(w->chat, &w->prompt, &w->error);
    buffer_free(&ask);
    if (status == G4_OK) status = job_check_length(w, "prompt");
    return w->status = status;
}

static double mean_logprob(const g4_answer *answer)
{
    double sum = 0;
    for (int i = 0; i < answer->n_logprobs; i++) sum += (double)answer->logprobs[i].logprob;
    return answer->n_logprobs > 0 ? sum / answer->n_logprobs : 0;
}

static void add_segment(transcription *t, const request_work *w)
{
    const g4_answer answer = answer_describe(&w->writer, &w->figures);
    const buffer *text = &w->writer.text;
    const double end = t->start + (double)t->block.n_samples / RATE;
    if (t->text.len > 0 && text->len > 0) buffer_str(&t->text, " ");
    buffer_add(&t->text, buffer_text(text), text->len);
    if (t->n_segments > 0) buffer_str(&t->segments, ",");
    buffer_fmt(&t->segments, "{\"id\":%d,\"seek\":0,\"start\":%.3f,\"end\":%.3f,\"text\":", t->n_segments++, t->start,
               end);
    buffer_quote(&t->segments, buffer_text(text), text->len);
    buffer_str(&t->segments, ",\"tokens\":[");
    for (int i = 0; i < answer.n_logprobs; i++)
        buffer_fmt(&t->segments, i > 0 ? ",%d" : "%d", (int)answer.logprobs[i].token);
    buffer_fmt(&t->segments, "],\"temperature\":%g,\"avg_logprob\":%.6f}", t->temperature, mean_logprob(&answer));
}

static void hear_block(connection *c, served_job *j, void *user)
{
    transcription *t = user;
    request_work *w = &j->work;
    w->args.temperature = t->temperature;
    w->args.logprobs = 0;
    t->is_refused = 1;
    if (make_prompt(w, t) == G4_OK && !job_wait(c, j)) return; /* the queue is full, and the client knows */
    if (w->status == G4_OK && request_finish(w) == DONE) {
        t->is_refused = 0;
        add_segment(t, w);
    } else {
        job_refuse(c, j);
    }
}

/* ---- The answer -------------------------------------------------------------------------------------------------- */

static void send_text(connection *c, const transcription *t)
{
    buffer b = { 0 };
    const double seconds = (double)t->sound.n_samples / RATE;
    if (t->form == FORM_TEXT) {
        buffer_add(&b, buffer_text(&t->text), t->text.len);
        buffer_str(&b, "\n");
    } else {
        buffer_str(&b, "{");
        if (t->form == FORM_VERBOSE) {
            buffer_str(&b, "\"task\":\"transcribe\",\"language\":");
            buffer_quote(&b, t->language, strlen(t->language));
            buffer_fmt(&b, ",\"duration\":%.3f,\"segments\":[%s],", seconds, buffer_text(&t->segments));
        }
        buffer_str(&b, "\"text\":");
        buffer_quote(&b, buffer_text(&t->text), t->text.len);
        buffer_fmt(&b, ",\"usage\":{\"type\":\"duration\",\"seconds\":%d}}\n", (int)ceil(seconds));
    }
    b.failed |= t->text.failed | t->segments.failed;
    connection_answer(c, 200, t->form == FORM_TEXT ? "text/plain; charset=utf-8" : NULL, &b, NULL);
    buffer_free(&b);
}

void answer_transcription(connection *c)
{
    transcription t = { .form = FORM_JSON };
    size_t n;
    job_serve(c, read_fields, &t);
    for (size_t from = 0; !t.is_refused && !c->is_lost && (n = g4_audio_block(&t.sound, from)) > 0; from += n) {
        if (n < LEAST_SAMPLES) continue; /* what is left of the last block says nothing */
        t.block = (g4_audio) { .samples = t.sound.samples + from, .n_samples = n };
        t.start = (double)from / RATE;
        job_serve(c, hear_block, &t);
    }
    if (!t.is_refused && !c->is_lost) send_text(c, &t);
    g4_audio_free(&t.sound, &t.how);
    buffer_free(&t.request);
    buffer_free(&t.text);
    buffer_free(&t.segments);
}
