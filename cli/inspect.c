/* inspect.c - the commands below the chat template: tokens, the rendered prompt, logits, perplexity, and what a
 * model file holds. Each writes what it computed and nothing else to stdout or to its file; the shape of the file of
 * -o goes to stderr. */
#include "cli.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- Tokens and prompts --------------------------------------------------------------------------- */

int run_tokenize(arguments *a)
{
    g4_engine *e = NULL;
    buffer text = { 0 }, line = { 0 };
    g4_token *ids = NULL;
    size_t n = 0;
    int status = model_open(&e, a);
    if (status == DONE) status = inputs_bytes(a, &text);
    if (status == DONE) status = text_tokens(e, &text, a->specials, &ids, &n);
    if (status == DONE) {
        for (size_t i = a->bos ? 0 : 1; i < n && status == DONE; i++) {
            buffer_fmt(&line, "%d%s", (int)ids[i], i + 1 < n ? " " : "");
            status = interrupted();
        }
        buffer_str(&line, "\n");
        if (status == DONE) status = print_buffer(&line);
    }
    free(ids);
    buffer_free(&line);
    buffer_free(&text);
    g4_engine_close(e);
    return status;
}

static int is_separator(char c) { return c == ' ' || c == ',' || c == '\n' || c == '\r' || c == '\t'; }

/* One token id, the whole of a word. */
static int parse_id(const char *word, size_t len, int n_vocab, g4_token *out)
{
    const int shown = len < 20 ? (int)len : 20; /* of a wrong word */
    int64_t id = 0;
    for (size_t i = 0; i < len; i++) {
        if (word[i] < '0' || word[i] > '9') return say(FAILED, "\"%.*s\" is not a token id", shown, word);
        if (id <= INT_MAX) id = 10 * id + (word[i] - '0');
    }
    if (id >= n_vocab) {
        return say(FAILED, "token id %.*s is out of range: the vocabulary ends at %d", shown, word, n_vocab - 1);
    }
    *out = (g4_token)id;
    return DONE;
}

/* Ids between blanks, commas or newlines into new memory, the caller's to free also after a failure. */
static int parse_ids(const buffer *list, int n_vocab, g4_token **ids, size_t *n)
{
    const char *text = buffer_text(list);
    int status = DONE;
    *n = 0;
    *ids = calloc(list->len / 2 + 1, sizeof **ids);
    if (*ids == NULL) return say(FAILED, "no memory for the token ids");
    for (size_t pos = 0; status == DONE;) {
        while (pos < list->len && is_separator(text[pos])) pos++;
        if (pos == list->len) break;
        size_t start = pos;
        while (pos < list->len && !is_separator(text[pos])) pos++;
        status = parse_id(text + start, pos - start, n_vocab, &(*ids)[*n]);
        *n += 1;
        if (status == DONE) status = interrupted();
    }
    return status;
}

int run_detokenize(arguments *a)
{
    g4_engine *e = NULL;
    g4_engine_info info;
    buffer list = { 0 }, text = { 0 };
    g4_token *ids = NULL;
    size_t n = 0;
    int status = model_open(&e, a);
    if (status == DONE) status = inputs_text(a, &list);
    if (status == DONE) {
        g4_engine_get_info(e, &info);
        status = parse_ids(&list, info.n_vocab, &ids, &n);
    }
    if (status == DONE) {
        char bytes[256];
        for (size_t i = 0; i < n && status == DONE; i++) {
            buffer_add(&text, bytes, g4_token_bytes(e, ids[i], a->skip_specials, bytes));
            status = interrupted();
        }
        if (status == DONE) status = print_buffer(&text);
    }
    free(ids);
    buffer_free(&text);
    buffer_free(&list);
    g4_engine_close(e);
    return status;
}

/* One JSON object on stdin, the prompt on stdout, byte for byte and nothing else. */
int run_render(arguments *a)
{
    g4_engine *e = NULL;
    g4_chat *chat = NULL;
    g4_chat_options opt = { .template_name = a->template_name };
    buffer json = { 0 }, text = { 0 };
    g4_error err;
    int status = a->model == NULL && a->template_name != NULL ? DONE : model_open(&e, a);
    if (status == DONE) status = inputs_text(a, &json);
    if (status == DONE && g4_chat_parse(&chat, e, buffer_text(&json), json.len, &opt, &err) != G4_OK) {
        status = report(&err);
    }
    if (status == DONE) {
        size_t len;
        const char *prompt = g4_chat_text(chat, &len);
        status = buffer_add_long(&text, prompt, len);
        if (status == DONE) status = print_buffer(&text);
    }
    buffer_free(&json);
    buffer_free(&text);
    g4_chat_close(chat);
    g4_engine_close(e);
    return status;
}

/* ---- Logits ------------------------------------------------------------------------------------------- */

/* A prompt: ids, with placeholders expanded to the soft tokens of the media options, in order. One picture or sound
 * placeholder stands for all of its file, one video placeholder for a frame. Without any media option a placeholder is
 * left to the engine, which reads it as pad. */
typedef struct {
    g4_token *ids;
    g4_medium *media;
    size_t n;
    int n_media;
    soft_list *files; /* one for each media option */
    int n_files;
} expanded_prompt;

static void expanded_free(g4_engine *e, expanded_prompt *x)
{
    for (int i = 0; i < x->n_files; i++) soft_list_free(e, &x->files[i]);
    free(x->files);
    free(x->ids);
    free(x->media);
}

/* Encode the files, and take memory for n ids with all their soft tokens. */
static int expanded_encode(expanded_prompt *x, g4_engine *e, const arguments *a, size_t n)
{
    size_t n_ids = n, n_media = 0;
    x->files = calloc((size_t)a->n_inputs + 1, sizeof *x->files);
    if (x->files == NULL) return say(FAILED, "no memory for the prompt");
    x->n_files = a->n_inputs;
    for (int i = 0; i < x->n_files; i++) {
        soft_list *s = &x->files[i];
        int status = soft_list_encode(s, e, a, &a->inputs[i], 0);
        if (status != DONE) return status;
        for (int j = 0; j < s->n; j++) n_ids += (size_t)g4_soft_n(s->soft[j]);
        n_media += (size_t)s->n;
    }
    x->ids = calloc(n_ids + 1, sizeof *x->ids);
    x->media = calloc(n_media + 1, sizeof *x->media);
    return x->ids != NULL && x->media != NULL ? DONE : say(FAILED, "no memory for the prompt");
}

typedef struct {
    const char *name; /* for messages */
    g4_token token;   /* -1: the vocabulary has none */
    input_kind kind;
} placeholder;

/* The soft tokens of the next file of that kind in place of one placeholder. */
static int expand_placeholder(expanded_prompt *x, const arguments *a, const placeholder *p)
{
    int file = 0;
    while (file < x->n_files && (a->inputs[file].kind != p->kind || x->files[file].next == x->files[file].n)) file++;
    if (file == x->n_files) return say(FAILED, "--tokens has more %s placeholders than there are files", p->name);
    soft_list *s = &x->files[file];
    int behind = p->kind == INPUT_VIDEO ? s->next + 1 : s->n;
    for (; s->next < behind; s->next++) {
        g4_soft *soft = s->soft[s->next];
        x->media[x->n_media++] = (g4_medium) { (int)x->n, soft };
        for (int i = 0; i < g4_soft_n(soft); i++) x->ids[x->n++] = g4_soft_token(soft);
    }
    return DONE;
}

static int expand(expanded_prompt *x, g4_engine *e, const arguments *a, const g4_token *ids, size_t n)
{
    const placeholder media[] = {
        { "image", control_token(e, "<|image|>"), INPUT_IMAGE },
        { "audio", control_token(e, "<|audio|>"), INPUT_AUDIO },
        { "video", control_token(e, "<|video|>"), INPUT_VIDEO },
    };
    const size_t n_media = a->n_inputs > 0 ? sizeof media / sizeof media[0] : 0;
    int status = expanded_encode(x, e, a, n);
    for (size_t i = 0; status == DONE && i < n; i++) {
        size_t k = 0;
        while (k < n_media && media[k].token != ids[i]) k++;
        if (k < n_media)
            status = expand_placeholder(x, a, &media[k]);
        else
            x->ids[x->n++] = ids[i];
    }
    for (int i = 0; status == DONE && i < x->n_files; i++) {
        if (x->files[i].next == x->files[i].n) continue;
        status = say(FAILED, "--tokens has no placeholder for %s%s", x->files[i].next > 0 ? "all frames of " : "",
                     a->inputs[i].value);
    }
    return status != DONE || x->n <= INT_MAX ? status : say(FAILED, "the prompt is too long");
}

/* The ids of --tokens: a list, or @FILE with one. */
static int option_ids(const arguments *a, int n_vocab, g4_token **ids, size_t *n)
{
    buffer list = { 0 };
    int status = DONE;
    if (a->tokens[0] == '@')
        status = file_read(a->tokens + 1, &list);
    else
        buffer_str(&list, a->tokens);
    if (status == DONE) status = parse_ids(&list, n_vocab, ids, n);
    if (status == DONE && *n == 0) status = say(USAGE, "--tokens holds no token id");
    if (status == DONE && *n > INT_MAX) status = say(FAILED, "--tokens holds too many token ids");
    buffer_free(&list);
    return status;
}

typedef struct { /* rows of logits on their way to a file */
    output_file out;
    size_t bytes; /* of one row */
    int n;        /* rows written */
} logits_writer;

static int on_row(void *user, int index, const float *logits)
{
    logits_writer *w = user;
    w->n = index + 1;
    return output_write(&w->out, logits, w->bytes);
}

/* Evaluate the prompt; logits go to the file of -o, if there is one. */
static int write_logits(logits_writer *w, g4_session *s, const expanded_prompt *x, int all)
{
    g4_error err;
    g4_prompt prompt = { .tokens = x->ids, .n = (int)x->n, .media = x->media, .n_media = x->n_media };
    all = all && w->out.f != NULL;
    g4_status result =
        all ? g4_session_eval_all(s, &prompt, on_row, w, &err) : g4_session_eval_prompt(s, &prompt, &err);
    if (result == G4_ERR_CANCELED && !interrupted() && w->out.f != NULL && ferror(w->out.f))
        return DONE; /* closing says why */
    if (result != G4_OK) return report(&err);
    if (!all && w->out.f != NULL) on_row(w, 0, g4_session_logits(s));
    return DONE;
}

/* Logits and activations of the prompt into their files. */
static int write_outputs(const arguments *a, const g4_engine_info *info, g4_session *s, const expanded_prompt *x,
                         const dump *d)
{
    logits_writer writer = { .bytes = (size_t)info->n_vocab * sizeof(float) };
    output_file activations = { 0 };
    int status = a->output != NULL ? output_open(&writer.out, a->output) : DONE;
    if (status == DONE) status = write_logits(&writer, s, x, a->all);
    status = output_close(&writer.out, status);
    if (status == DONE && a->dump != NULL) status = output_open(&activations, a->dump);
    if (status == DONE && a->dump != NULL) status = dump_write(d, &activations);
    status = output_close(&activations, status);
    if (status == DONE && a->output != NULL) fprintf(stderr, "shape %d %d\n", writer.n, info->n_vocab);
    if (status == DONE && a->dump != NULL) fprintf(stderr, "tensors %zu\n", d->n);
    return status;
}

int run_logits(arguments *a)
{
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_engine_info info;
    g4_error err;
    progress_line progress;
    dump activations = { 0 };
    const g4_taps taps = { .fn = dump_tap, .user = &activations };
    g4_token *ids = NULL;
    expanded_prompt x = { 0 };
    size_t n = 0;
    if (a->tokens == NULL) return say(USAGE, "logits needs --tokens LIST or --tokens @FILE");
    if (a->output == NULL && a->dump == NULL) return say(USAGE, "logits needs -o FILE or --dump FILE");
    if (a->output != NULL && a->dump != NULL && strcmp(a->output, "-") == 0 && strcmp(a->dump, "-") == 0) {
        return say(USAGE, "-o and --dump cannot both go to standard output");
    }
    if (a->dump != NULL) a->taps = &taps;
    int status = model_open(&e, a);
    if (status == DONE) {
        g4_engine_get_info(e, &info);
        status = option_ids(a, info.n_vocab, &ids, &n);
    }
    if (status == DONE) status = expand(&x, e, a, ids, n);
    g4_session_options setup = session_options(a, &progress);
    if (status == DONE && g4_session_open(&s, e, &setup, &err) != G4_OK) status = report(&err);
    if (status == DONE) status = write_outputs(a, &info, s, &x, &activations);
    progress_end(&progress);
    free(ids);
    g4_session_close(s);
    expanded_free(e, &x);
    g4_engine_close(e);
    dump_free(&activations);
    a->taps = NULL;
    return status;
}

/* ---- Perplexity ----------------------------------------------------------------------------------------- */

typedef struct {
    const g4_token *ids; /* (n) of the text, without its BOS */
    size_t n, start;     /* start: the first token of this window, behind its BOS */
    size_t scored;       /* ids[0 .. scored) have their value */
    const g4_engine *engine;
    float *nll; /* (n): -ln p(ids[i] | what stands before it) */
} scorer;

static int on_score(void *user, int index, const float *logits)
{
    scorer *k = user;
    size_t next = k->start + (size_t)index;
    if (interrupted()) return 1;
    if (next >= k->n || next < k->scored) return 0;
    k->nll[next] = -g4_logits_logprob(k->engine, logits, k->ids[next]);
    k->scored = next + 1;
    return 0;
}

/* Every token of the text once. A text longer than the context is read in windows of that size that overlap by half,
 * each with BOS in front; a token counts in the first window that holds it. */
static int score(scorer *k, g4_session *s, g4_token bos, progress_line *progress)
{
    g4_error err;
    size_t window = (size_t)g4_session_n_ctx(s), step = window > 1 ? window / 2 : 1;
    g4_token *tokens = calloc(window, sizeof *tokens);
    int status = tokens != NULL ? DONE : say(FAILED, "no memory for %zu tokens", window);
    for (; status == DONE && k->scored < k->n; k->start += step) {
        size_t n = k->n - k->start < window ? k->n - k->start : window; /* the last token is only predicted */
        g4_prompt prompt = { .tokens = tokens, .n = (int)n };
        tokens[0] = bos;
        memcpy(tokens + 1, k->ids + k->start, (n - 1) * sizeof *tokens);
        if (g4_session_rewind(s, 0, &err) != G4_OK || g4_session_eval_all(s, &prompt, on_score, k, &err) != G4_OK) {
            status = report(&err);
        }
        progress_end(progress);
    }
    free(tokens);
    return status;
}

static int print_perplexity(const scorer *k, double seconds, int json)
{
    buffer line = { 0 };
    double total = 0;
    for (size_t i = 0; i < k->n; i++) total += (double)k->nll[i];
    double mean = total / (double)k->n;
    buffer_fmt(&line,
               json ? "{\"perplexity\":%.6g,\"nll\":%.6g,\"tokens\":%zu,\"seconds\":%.3f}\n"
                    : "perplexity %.4f, %.5f nats a token, %zu tokens in %.1f s\n",
               exp(mean), mean, k->n, seconds);
    int status = print_buffer(&line);
    buffer_free(&line);
    return status;
}

int run_perplexity(arguments *a)
{
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_engine_info info;
    g4_error err;
    progress_line progress;
    output_file out = { 0 };
    buffer text = { 0 };
    g4_token *ids = NULL;
    scorer k = { 0 };
    size_t n = 0;
    int status = model_open(&e, a);
    if (status != DONE) return status;
    g4_engine_get_info(e, &info);
    g4_session_options setup = session_options(a, &progress);
    status = inputs_text(a, &text);
    if (status == DONE) status = text_tokens(e, &text, 0, &ids, &n);
    if (status == DONE && n == 1) status = say(FAILED, "the text is empty: nothing to score");
    if (status == DONE && g4_session_open(&s, e, &setup, &err) != G4_OK) status = report(&err);
    if (status == DONE && a->nll != NULL) status = output_open(&out, a->nll);
    if (status == DONE) {
        k = (scorer) { .ids = ids + 1, .n = n - 1, .engine = e };
        k.nll = calloc(k.n, sizeof *k.nll);
        if (k.nll == NULL) status = say(FAILED, "no memory for %zu tokens", k.n);
    }
    double start = seconds_now();
    if (status == DONE) status = score(&k, s, info.bos, &progress);
    if (status == DONE && out.f != NULL) output_write(&out, k.nll, k.n * sizeof *k.nll);
    status = output_close(&out, status);
    if (status == DONE) status = print_perplexity(&k, seconds_now() - start, a->json);
    free(k.nll);
    free(ids);
    buffer_free(&text);
    g4_session_close(s);
    g4_engine_close(e);
    return status;
}

/* ---- What a model is -------------------------------------------------------------------------------------- */

static double megabytes(uint64_t bytes) { return (double)bytes / 1e6; }

static void add_model(buffer *b, const g4_engine_info *info)
{
    buffer_fmt(b, "parameters      %.1f M\n", (double)info->n_params / 1e6);
    buffer_fmt(b, "layers          %d, hidden %d, query heads %d, window %d\n", info->n_layers, info->hidden,
               info->n_heads, info->window);
    if (info->ple_dim > 0) buffer_fmt(b, "per layer       embeddings of %d\n", info->ple_dim);
    if (info->n_experts > 0) {
        buffer_fmt(b, "experts         %d of width %d, %d for each token\n", info->n_experts, info->expert_dim,
                   info->n_experts_used);
    }
    buffer_fmt(b, "head            %s", info->has_own_head ? "its own" : "tied to the embedding");
    if (info->softcap > 0) buffer_fmt(b, ", softcap %g", (double)info->softcap);
    buffer_fmt(b, "\nvocabulary      %d (bos %d, eos %d, pad %d)\n", info->n_vocab, (int)info->bos, (int)info->eos,
               (int)info->pad);
    buffer_fmt(b, "context         up to %d\n", info->max_ctx);
    if (info->has_image) {
        buffer_fmt(b, "vision          %d layers, hidden %d, %d soft tokens by default\n", info->vision_layers,
                   info->vision_hidden, info->vision_tokens);
    }
    if (info->has_audio) {
        buffer_fmt(b, "audio           %d layers, hidden %d\n", info->audio_layers, info->audio_hidden);
    }
    buffer_fmt(b, "kernels         %s, %d threads\n", info->isa, info->n_threads);
}

/* The tensors by type and layout. */
static void add_tensors(buffer *b, const g4_engine *e)
{
    struct {
        const char *type, *layout;
        int n;
        uint64_t bytes;
    } kinds[16];
    const int max_kinds = sizeof kinds / sizeof kinds[0];
    int n_kinds = 0;
    g4_tensor_info t;
    for (int i = 0; g4_engine_get_tensor(e, i, &t); i++) {
        int k = 0;
        while (k < n_kinds && (strcmp(kinds[k].type, t.type) != 0 || strcmp(kinds[k].layout, t.layout) != 0)) k++;
        if (k == max_kinds) break;
        if (k == n_kinds) {
            kinds[k].type = t.type;
            kinds[k].layout = t.layout;
            kinds[k].n = 0;
            kinds[k].bytes = 0;
            n_kinds++;
        }
        kinds[k].n++;
        kinds[k].bytes += t.bytes;
    }
    for (int k = 0; k < n_kinds; k++) {
        buffer_fmt(b, "  %-6s %-9s %5d tensors %10.1f MB\n", kinds[k].type, kinds[k].layout, kinds[k].n,
                   megabytes(kinds[k].bytes));
    }
}

static void add_memory(buffer *b, const g4_memory_plan *plan)
{
    buffer_fmt(b, "  weights         %10.1f MB  mapped from the file, read for each token\n", megabytes(plan->weights));
    buffer_fmt(b, "  tables by row   %10.1f MB  stay on disk but for the rows in use\n", megabytes(plan->lookup));
    buffer_fmt(b, "  keys, values    %10.1f MB  at most, taken as the context fills\n", megabytes(plan->kv));
    buffer_fmt(b, "  work buffers    %10.1f MB\n", megabytes(plan->work + plan->shared));
    if (plan->available > 0) buffer_fmt(b, "  free now        %10.1f MB\n", megabytes(plan->available));
}

static void add_every_tensor(buffer *b, const g4_engine *e)
{
    g4_tensor_info t;
    buffer shape = { 0 };
    for (int i = 0; g4_engine_get_tensor(e, i, &t); i++) {
        shape.len = 0;
        for (int d = 0; d < t.n_dims; d++) {
            buffer_fmt(&shape, "%s%llu", d > 0 ? " x " : "", (unsigned long long)t.dims[d]);
        }
        buffer_fmt(b, "  %-32s %-6s %-9s %-20s %12llu\n", t.name, t.type, t.layout, buffer_text(&shape),
                   (unsigned long long)t.bytes);
    }
    b->failed |= shape.failed;
    buffer_free(&shape);
}

/* ---- The same as JSON: names are those of g4_engine_info, g4_memory_plan and g4_tensor_info ----------------- */

static void add_json_text(buffer *b, const char *name, const char *text)
{
    buffer_fmt(b, "\"%s\":", name);
    buffer_quote(b, text, strlen(text));
    buffer_str(b, ",");
}

static void add_json_number(buffer *b, const char *name, uint64_t x)
{
    buffer_fmt(b, "\"%s\":%llu,", name, (unsigned long long)x);
}

static void add_json_flag(buffer *b, const char *name, int flag)
{
    buffer_fmt(b, "\"%s\":%s,", name, flag ? "true" : "false");
}

/* The comma behind the last member becomes what closes the object or list. */
static void close_json(buffer *b, const char *with)
{
    if (b->len > 0 && b->data[b->len - 1] == ',') b->len--;
    buffer_str(b, with);
}

static void add_json_model(buffer *b, const g4_engine_info *info)
{
    add_json_text(b, "name", info->name);
    add_json_text(b, "source", info->source);
    add_json_text(b, "source_sha256", info->source_sha256);
    add_json_flag(b, "is_chat", info->is_chat);
    add_json_flag(b, "has_image", info->has_image);
    add_json_flag(b, "has_audio", info->has_audio);
    add_json_number(b, "n_params", info->n_params);
    add_json_number(b, "file_bytes", info->file_bytes);
    add_json_number(b, "lookup_bytes", info->lookup_bytes);
    add_json_number(b, "decode_bytes", info->decode_bytes);
    const struct {
        const char *name;
        int value;
    } counts[] = {
        { "n_layers", info->n_layers },
        { "hidden", info->hidden },
        { "n_heads", info->n_heads },
        { "window", info->window },
        { "ple_dim", info->ple_dim },
        { "n_experts", info->n_experts },
        { "n_experts_used", info->n_experts_used },
        { "expert_dim", info->expert_dim },
        { "n_vocab", info->n_vocab },
        { "bos", info->bos },
        { "eos", info->eos },
        { "pad", info->pad },
        { "max_ctx", info->max_ctx },
        { "vision_layers", info->vision_layers },
        { "vision_hidden", info->vision_hidden },
        { "vision_tokens", info->vision_tokens },
        { "audio_layers", info->audio_layers },
        { "audio_hidden", info->audio_hidden },
        { "n_threads", info->n_threads },
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        buffer_fmt(b, "\"%s\":%d,", counts[i].name, counts[i].value);
    add_json_flag(b, "has_own_head", info->has_own_head);
    buffer_fmt(b, "\"softcap\":%g,", (double)info->softcap);
    add_json_text(b, "isa", info->isa);
}

static void add_json_tensors(buffer *b, const g4_engine *e)
{
    g4_tensor_info t;
    buffer_str(b, "\"tensors\":[");
    for (int i = 0; g4_engine_get_tensor(e, i, &t); i++) {
        buffer_str(b, "{");
        add_json_text(b, "name", t.name);
        add_json_text(b, "type", t.type);
        add_json_text(b, "layout", t.layout);
        buffer_str(b, "\"dims\":[");
        for (int d = 0; d < t.n_dims; d++) buffer_fmt(b, "%llu,", (unsigned long long)t.dims[d]);
        close_json(b, "],");
        add_json_number(b, "bytes", t.bytes);
        close_json(b, "},");
    }
    close_json(b, "],");
}

static void add_json_info(buffer *b, const arguments *a, const g4_engine *e, const g4_memory_plan *plan, int n_ctx)
{
    g4_engine_info info;
    g4_engine_get_info(e, &info);
    buffer_str(b, "{");
    add_json_text(b, "file", a->model);
    add_json_model(b, &info);
    add_json_text(b, "type", weight_type(e));
    if (a->list_tensors) add_json_tensors(b, e);
    buffer_fmt(b, "\"memory\":{\"n_ctx\":%d,", n_ctx);
    add_json_number(b, "weights", plan->weights);
    add_json_number(b, "lookup", plan->lookup);
    add_json_number(b, "kv", plan->kv);
    add_json_number(b, "work", plan->work);
    add_json_number(b, "shared", plan->shared);
    add_json_number(b, "available", plan->available);
    close_json(b, "}}\n");
}

static void add_info(buffer *b, const arguments *a, const g4_engine *e, const g4_memory_plan *plan, int n_ctx,
                     double seconds)
{
    g4_engine_info info;
    g4_engine_get_info(e, &info);
    buffer_fmt(b, "model           %s (%s)\n", info.name, info.is_chat ? "chat" : "base");
    buffer_fmt(b, "file            %s, %.1f MB, opened in %.1f ms\n", a->model, megabytes(info.file_bytes),
               1e3 * seconds);
    if (info.source[0] != 0)
        buffer_fmt(b, "made from       %s\n                sha256 %s\n", info.source, info.source_sha256);
    add_model(b, &info);
    buffer_str(b, "\ntensors\n");
    if (a->list_tensors)
        add_every_tensor(b, e);
    else
        add_tensors(b, e);
    buffer_fmt(b, "\nmemory for a context of %d\n", n_ctx);
    add_memory(b, plan);
}

int run_info(arguments *a)
{
    g4_engine *e = NULL;
    g4_engine_info info;
    g4_memory_plan plan;
    progress_line progress;
    buffer b = { 0 };
    double start = seconds_now();
    int status = model_open(&e, a);
    if (status != DONE) return status;
    double seconds = seconds_now() - start;
    g4_engine_get_info(e, &info);
    int n_ctx = context_size(a, &info);
    g4_session_options setup = session_options(a, &progress);
    g4_session_plan(e, &setup, &plan);
    if (a->json)
        add_json_info(&b, a, e, &plan, n_ctx);
    else
        add_info(&b, a, e, &plan, n_ctx, seconds);
    status = print_buffer(&b);
    buffer_free(&b);
    g4_engine_close(e);
    return status;
}
