/* answer.c - an answer on its way to the user: tokens become text on stdout, thoughts on stderr, calls on a line of
 * their own, or members of one JSON object. The stop strings of a chat count in its text alone, so that its reader
 * looks for them and not what generates. */
#include "cli.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* ---- Text ------------------------------------------------------------------------------------- */

static void emit(answer_writer *w, const char *text, size_t len)
{
    buffer_add(&w->text, text, len);
    if (w->stream != NULL && len > 0)
        g4_stream_part(w->stream, w->part, &(g4_part) { .kind = G4_PART_TEXT, .text = text, .text_len = len });
    if (w->args->json) return;
    errno = 0;
    show(stdout, text, len);
    if (fflush(stdout) != 0 || ferror(stdout)) w->write_error = errno != 0 ? errno : EIO;
}

/* ---- Thoughts and calls ------------------------------------------------------------------------- */

static void show_thought(answer_writer *w, const g4_part *delta)
{
    if (!w->in_thought && terminal_draws(STDERR_FILENO)) fputs("\033[2m", stderr); /* dim */
    w->in_thought = 1;
    show(stderr, delta->text, delta->text_len);
    fflush(stderr);
}

/* A thought that is not shown says that it goes on, in a line that vanishes with it. */
static void count_thought(answer_writer *w)
{
    const double patience = 0.1; /* seconds between two counts */
    double now = seconds_now();
    int in_line = w->text.len > 0 && w->text.data[w->text.len - 1] != '\n';
    if (w->args->quiet || in_line || !terminal_draws(STDERR_FILENO)) return;
    if (w->thought_start == 0) w->thought_start = now;
    if (w->thought_told > 0 && now - w->thought_told < patience) return;
    w->thought_told = now;
    fprintf(stderr, "\r\033[2mthinking: %d tokens, %.0f s\033[0m\033[K", g4_response_thought_tokens(w->response),
            now - w->thought_start);
}

static void end_thought(answer_writer *w)
{
    if (w->in_thought) fputs(terminal_draws(STDERR_FILENO) ? "\033[0m\n" : "\n", stderr);
    if (w->thought_told > 0) fputs("\r\033[K", stderr);
    w->in_thought = 0;
    w->thought_start = w->thought_told = 0;
}

static void show_call(answer_writer *w, const g4_part *delta)
{
    FILE *f = w->args->tool_exec != NULL ? stderr : stdout;
    show(f, delta->name, strlen(delta->name));
    fputc(' ', f);
    show(f, delta->text, delta->text_len);
    fputc('\n', f);
    if (fflush(f) != 0 && f == stdout) w->write_error = errno;
    w->called = 1;
}

/* What was cut off, for the line that says so. An incomplete call is shown nowhere else: it is none. */
static void note_cut(answer_writer *w, const g4_part *delta)
{
    w->cut.len = 0;
    if (delta->kind == G4_PART_THOUGHT) buffer_str(&w->cut, "thought");
    if (delta->kind != G4_PART_TOOL_CALL) return;
    buffer_str(&w->cut, "call");
    if (delta->name[0] != '\0') buffer_fmt(&w->cut, " of %s", delta->name);
}

static int on_part(void *user, int index, const g4_part *delta)
{
    answer_writer *w = user;
    w->part = index; /* pieces come in the order of their parts */
    if (w->stream != NULL && delta->kind != G4_PART_TEXT) g4_stream_part(w->stream, index, delta);
    if (delta->kind != G4_PART_THOUGHT)
        end_thought(w);
    else if (w->args->show_thoughts && !w->args->json)
        show_thought(w, delta);
    else
        count_thought(w);
    if (delta->incomplete)
        note_cut(w, delta);
    else if (delta->kind == G4_PART_TOOL_CALL && !w->args->json)
        show_call(w, delta);
    const int is_whole = w->stream == NULL || delta->raw != NULL; /* its last piece */
    if (delta->kind == G4_PART_TOOL_CALL && is_whole && !delta->incomplete && g4_request_get(w->request) != NULL) {
        w->ended_by_call = g4_request_get(w->request)->one_call;
    }
    if (delta->kind == G4_PART_TEXT) emit(w, delta->text, delta->text_len);
    return w->ended_by_call;
}

int answer_open_chat(answer_writer *w, int in_thought)
{
    g4_error err;
    w->is_chat = 1;
    if (g4_response_open(&w->response, w->engine, in_thought, on_part, w, &err) != G4_OK ||
        g4_response_stop_at(w->response, w->args->stop, w->args->n_stop, &err) != G4_OK)
        return report(&err);
    return DONE;
}

void answer_open_respond(answer_writer *w) { w->is_chat = w->is_library_s = 1; }

g4_respond_options answer_respond(answer_writer *w, const g4_generate_options *generate, const g4_guide_options *guide,
                                  int streams)
{
    return (g4_respond_options) {
        .generate = generate, .guide = *guide, .part = on_part, .user = w, .call_deltas = streams
    };
}

int answer_finish_chat(answer_writer *w, int status)
{
    g4_error err;
    if (status == DONE && !w->is_library_s && g4_response_finish(w->response, &err) != G4_OK) status = report(&err);
    end_thought(w);
    return status;
}

void answer_free(answer_writer *w)
{
    g4_response_close(w->response);
    buffer_free(&w->text);
    buffer_free(&w->logprobs);
    buffer_free(&w->tokens);
    buffer_free(&w->best);
    buffer_free(&w->cut);
}

/* ---- Log-probabilities ---------------------------------------------------------------------------- */

static void add_quoted_token(buffer *b, const g4_engine *e, g4_token id)
{
    char bytes[256];
    buffer_quote(b, bytes, g4_token_bytes(e, id, 0, bytes));
}

/* The members that tell of one token, the object left open. */
static void add_json_candidate(buffer *b, const g4_engine *e, g4_token id, float logprob)
{
    buffer_fmt(b, "{\"id\":%d,\"token\":", (int)id);
    add_quoted_token(b, e, id);
    buffer_fmt(b, ",\"logprob\":%.6g", (double)logprob);
}

static void add_json_logprobs(buffer *b, const g4_engine *e, const g4_output *o)
{
    if (b->len > 0) buffer_str(b, ",");
    add_json_candidate(b, e, o->token, o->logprob);
    buffer_str(b, ",\"top\":[");
    for (int i = 0; i < o->n_top; i++) {
        if (i > 0) buffer_str(b, ",");
        add_json_candidate(b, e, o->top[i].token, o->top[i].logprob);
        buffer_str(b, "}");
    }
    buffer_str(b, "]}");
}

static void add_line_of_logprobs(buffer *b, const g4_engine *e, const g4_output *o)
{
    buffer_fmt(b, "%9.4f %6d ", (double)o->logprob, (int)o->token);
    add_quoted_token(b, e, o->token);
    for (int i = 0; i < o->n_top; i++) {
        buffer_str(b, i == 0 ? "  of " : ", ");
        add_quoted_token(b, e, o->top[i].token);
        buffer_fmt(b, " %.4f", (double)o->top[i].logprob);
    }
    buffer_str(b, "\n");
}

/* The token and its rivals, which are found again once all are there. */
static void keep_logprobs(answer_writer *w, const g4_output *o)
{
    g4_token_logprob t = { .token = o->token, .logprob = o->logprob, .n_top = o->n_top };
    if (o->token < 0) return; /* text that was held back */
    buffer_add(&w->tokens, &t, sizeof t);
    buffer_add(&w->best, o->top, (size_t)o->n_top * sizeof *o->top);
}

/* ---- Generating ------------------------------------------------------------------------------------ */

static int on_output(void *user, const g4_output *o)
{
    answer_writer *w = user;
    int stop = 0;
    if (w->stream != NULL) g4_stream_token(w->stream, o);
    if (w->args->logprobs >= 0 && w->args->json == JSON_OPENAI)
        keep_logprobs(w, o);
    else if (w->args->logprobs >= 0 && w->args->json)
        add_json_logprobs(&w->logprobs, w->engine, o);
    else if (w->args->logprobs >= 0)
        add_line_of_logprobs(&w->logprobs, w->engine, o);
    if (!w->is_chat)
        emit(w, o->text, o->text_len);
    else if (!w->is_library_s)
        stop = g4_response_push(w->response, o->token);
    return stop || w->write_error || interrupted();
}

/* What the model recommends, changed by what the request says, and that by what the command line gives. */
static g4_sampling sampling_of(const arguments *a, const g4_engine *e, const g4_request *request)
{
    g4_sampling s;
    g4_sampling_recommended(e, &s);
    g4_request_sampling(request, &s);
    if (!isnan(a->temperature)) s.temperature = (float)a->temperature;
    if (a->top_k >= 0) s.top_k = a->top_k;
    if (!isnan(a->top_p)) s.top_p = (float)a->top_p;
    if (!isnan(a->min_p)) s.min_p = (float)a->min_p;
    if (!isnan(a->repeat_penalty)) s.repeat_penalty = (float)a->repeat_penalty;
    if (!isnan(a->presence_penalty)) s.presence_penalty = (float)a->presence_penalty;
    if (!isnan(a->frequency_penalty)) s.frequency_penalty = (float)a->frequency_penalty;
    if (a->has_seed || request == NULL) s.seed = a->seed;
    if (a->n_bias > 0) {
        s.bias = a->bias;
        s.n_bias = a->n_bias;
    }
    return s;
}

/* Was the answer cut off, or did it end? A stop string is an end where the text is free; raw text under a grammar may
 * end where nothing more fits. */
static int is_cut(const answer_writer *w, const g4_result *result)
{
    if (w->args->max_tokens == 0 || w->ended_by_call) return 0;
    if (w->stopped) return w->is_guided;
    switch (result->stop) {
    case G4_STOP_END: return 0;
    case G4_STOP_STRING: return w->is_guided;
    case G4_STOP_CONSTRAINT: return w->is_chat;
    default: return 1;
    }
}

g4_generate_options answer_options(answer_writer *w, const g4_constraint *constraint, g4_sampling *sampling)
{
    const arguments *a = w->args;
    *sampling = sampling_of(a, w->engine, w->request);
    return (g4_generate_options) { .sampling = sampling,
                                   .max_tokens = a->max_tokens > 0 ? a->max_tokens : 0,
                                   .stop = a->stop,
                                   .n_stop = w->is_chat && !w->is_library_s ? 0 : a->n_stop,
                                   .no_guard = a->no_guard || !w->is_chat,
                                   .no_lookup = a->no_lookup,
                                   .want_logprobs = a->logprobs >= 0,
                                   .n_top = a->logprobs > 0 ? a->logprobs : 0,
                                   .constraint = constraint,
                                   .output = on_output,
                                   .user = w };
}

void answer_ended(answer_writer *w, figures *f)
{
    if (w->is_chat && !w->is_library_s && f->result.stop == G4_STOP_END)
        g4_response_push(w->response, f->result.stop_token);
    w->stopped = g4_response_stop_string(w->response) != NULL;
    f->finish = g4_stop_name(w->stopped ? G4_STOP_STRING : f->result.stop);
    if (interrupted() && f->result.stop == G4_STOP_CALLBACK && !w->stopped) f->finish = "interrupted";
    f->is_cut = is_cut(w, &f->result);
}

int answer_generate(answer_writer *w, g4_session *s, const g4_constraint *constraint, figures *f)
{
    g4_sampling sampling;
    const g4_generate_options opt = answer_options(w, constraint, &sampling);
    g4_error err;
    f->result = (g4_result) { .stop = G4_STOP_MAX_TOKENS, .stop_token = -1 };
    if (w->args->max_tokens != 0 && g4_session_generate(s, &opt, &f->result, &err) != G4_OK) {
        if (err.code != G4_ERR_CANCELED || !interrupted()) return report(&err);
        f->result.stop = G4_STOP_CALLBACK; /* the answer ends here, and what there is of it counts */
    }
    answer_ended(w, f);
    return DONE;
}

int answer_calls(const answer_writer *w, figures *f)
{
    int n_parts = 0, n = 0, n_cut = 0;
    const g4_part *parts = g4_response_parts(w->response, &n_parts);
    for (int i = 0; i < n_parts; i++) {
        n += parts[i].kind == G4_PART_TOOL_CALL && !parts[i].incomplete;
        n_cut += parts[i].kind == G4_PART_TOOL_CALL && parts[i].incomplete;
    }
    /* behind a whole call only others could have come: -n has cut nothing there that would be missed */
    const g4_part *last = n_parts > 0 ? &parts[n_parts - 1] : NULL;
    if (f->result.stop == G4_STOP_MAX_TOKENS && last != NULL && last->kind == G4_PART_TOOL_CALL && !last->incomplete)
        f->is_cut = 0;
    if (f->is_cut) n = 0;
    f->lacks_call = n == 0 && n_cut > 0;
    if (n > 0)
        f->finish = "tool_calls";
    else if (f->lacks_call && f->result.stop == G4_STOP_END && !w->stopped) /* as g4_answer_write has it */
        f->finish = g4_stop_name(G4_STOP_MAX_TOKENS);
    return n;
}

/* ---- The end ---------------------------------------------------------------------------------------- */

static int print_json(const answer_writer *w, const figures *f, const char *extra)
{
    buffer b = { 0 };
    int n = f->result.n_tokens;
    buffer_str(&b, "{\"role\":\"assistant\",\"content\":");
    buffer_quote(&b, w->text.data, w->text.len);
    buffer_fmt(&b, "%s,\"finish_reason\":\"%s\"", extra, f->finish);
    if (f->is_cut || f->lacks_call) buffer_str(&b, ",\"incomplete\":true");
    if (interrupted()) buffer_str(&b, ",\"interrupted\":true");
    buffer_fmt(&b,
               ",\"usage\":{\"prompt_tokens\":%d,\"cached_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d}",
               f->prompt_tokens, f->reused, n, f->prompt_tokens + n);
    buffer_fmt(&b, ",\"seconds\":{\"prompt\":%.4f,\"answer\":%.4f}", f->prompt_seconds, f->result.seconds);
    if (w->args->random_seed) buffer_fmt(&b, ",\"seed\":%llu", (unsigned long long)w->args->seed);
    if (w->args->logprobs >= 0) buffer_fmt(&b, ",\"logprobs\":[%s]", buffer_text(&w->logprobs));
    buffer_str(&b, "}\n");
    int status = print_buffer(&b);
    buffer_free(&b);
    return status;
}

/* Why it ended, as it is told to clients of OpenAI. */
static g4_stop stop_of(const answer_writer *w, const figures *f)
{
    if (w->stopped) return G4_STOP_STRING;
    if (strcmp(f->finish, "tool_calls") == 0) return G4_STOP_END;
    return interrupted() ? G4_STOP_CANCELED : f->result.stop;
}

g4_answer answer_describe(const answer_writer *w, const figures *f)
{
    g4_engine_info info;
    g4_token_logprob *tokens = (g4_token_logprob *)(void *)w->tokens.data;
    const g4_candidate *best = (const g4_candidate *)(const void *)w->best.data;
    int n_tokens = (int)(w->tokens.len / sizeof *tokens);
    for (int i = 0; i < n_tokens; best += tokens[i++].n_top) tokens[i].top = best;
    g4_engine_get_info(w->engine, &info);
    const g4_request_info *request = g4_request_get(w->request);
    g4_answer answer = { .id = w->id != 0 ? w->id : (uint64_t)(seconds_now() * 1e6) ^ (uint64_t)getpid() << 40,
                         .model = request != NULL && request->model != NULL ? request->model : info.name,
                         .result = f->result,
                         .prompt_tokens = f->prompt_tokens,
                         .cached_tokens = f->reused,
                         .thought_tokens = g4_response_thought_tokens(w->response),
                         .prompt_seconds = f->prompt_seconds,
                         .engine = w->engine,
                         .want_logprobs = w->args->logprobs >= 0,
                         .logprobs = tokens,
                         .n_logprobs = n_tokens,
                         .is_completion = !w->is_chat && request != NULL,
                         .dialect = request != NULL ? request->dialect : G4_DIALECT_OPENAI,
                         .request = request };
    if (f->finish != NULL) answer.result.stop = stop_of(w, f);
    if (w->response != NULL) answer.parts = g4_response_parts(w->response, &answer.n_parts);
    return answer;
}

int answer_failed(const answer_writer *w) { return w->text.failed || w->tokens.failed || w->best.failed; }

int answer_openai(const answer_writer *w, const figures *f, buffer *out)
{
    g4_error err;
    g4_answer answer = answer_describe(w, f);
    const g4_part text = { .kind = G4_PART_TEXT, .text = buffer_text(&w->text), .text_len = w->text.len };
    if (w->response == NULL) {
        answer.parts = &text;
        answer.n_parts = 1;
    }
    if (answer_failed(w)) return say(FAILED, "no memory for the answer");
    return g4_answer_write(&answer, buffer_write, out, NULL, &err) == G4_OK ? DONE : report(&err);
}

static int print_openai(const answer_writer *w, const figures *f)
{
    buffer b = { 0 };
    int status = answer_openai(w, f, &b);
    if (status == DONE) status = print_buffer(&b);
    buffer_free(&b);
    return status;
}

static int print_end(const answer_writer *w)
{
    int status = DONE, open = w->text.len == 0 ? !w->called : w->text.data[w->text.len - 1] != '\n';
    if (open) putchar('\n');
    if (fflush(stdout) != 0 || w->write_error) {
        status = say(FAILED, "cannot write standard output: %s", strerror(w->write_error ? w->write_error : errno));
    }
    show(stderr, buffer_text(&w->logprobs), w->logprobs.len);
    return status;
}

/* What the user would take for whole, or would miss. */
static void say_what_is_cut(const answer_writer *w, const figures *f)
{
    if (w->cut.len > 0 && !f->is_cut)
        say(DONE, "the %s is incomplete", w->cut.data);
    else if (w->cut.len > 0)
        say(DONE, "stopped: %s; the %s is incomplete", f->finish, w->cut.data);
    else if (f->is_cut && (w->is_guided || (w->response != NULL && w->text.len == 0)))
        say(DONE, "stopped: %s; the answer is incomplete", f->finish);
}

int answer_end(const answer_writer *w, const figures *f, const char *extra)
{
    const arguments *a = w->args;
    if (w->text.failed || w->logprobs.failed || w->cut.failed) return say(FAILED, "no memory for the answer");
    int n = f->result.n_tokens, status = DONE;
    if (a->json == JSON_OPENAI)
        status = print_openai(w, f);
    else
        status = a->json ? print_json(w, f, extra) : print_end(w);
    if (f->result.stop == G4_STOP_CONTEXT && w->response == NULL)
        say(DONE, "the context is full; -c N gives more room");
    if (f->result.stop == G4_STOP_REPEAT) {
        say(DONE, "the answer repeated itself and was ended; --no-guard lets it go on");
    }
    say_what_is_cut(w, f);
    if (!a->quiet && !a->json) {
        say(DONE, "prompt %d tokens, %d of them reused, %.1f/s; answer %d tokens, %.1f/s", f->prompt_tokens, f->reused,
            per_second(f->prompt_tokens - f->reused, f->prompt_seconds), n, per_second(n, f->result.seconds));
        if (a->random_seed) say(DONE, "seed %llu", (unsigned long long)a->seed);
    }
    return status;
}
