/* run.c - the command line of gemma4.c: main, the table of options, and the command without a name, which answers one
 * question or opens the chat. cli/cli.h lists what it stands on. The command line alone prints, exits and reads the
 * environment; the library does none of these. */
#include "cli/cli.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- Options: one table for all commands ----------------------------------------------------------- */

/* Who takes an option: one bit for each command. */
enum {
    FOR_ANSWER = 1 << 0,
    FOR_INFO = 1 << 1,
    FOR_BENCH = 1 << 2,
    FOR_TOKENIZE = 1 << 3,
    FOR_DETOKENIZE = 1 << 4,
    FOR_RENDER = 1 << 5,
    FOR_PERPLEXITY = 1 << 6,
    FOR_LOGITS = 1 << 7,
    FOR_ENCODE = 1 << 8,
    FOR_MEL = 1 << 9,
    FOR_PATCHES = 1 << 10,
    FOR_HELP = 1 << 11,
    FOR_LIST = 1 << 12,
    FOR_CALIBRATE = 1 << 13,
    FOR_BATCH = 1 << 14,
    FOR_SERVE = 1 << 15,
    FOR_ANSWERS = FOR_ANSWER | FOR_BATCH,
    FOR_SHOWN = FOR_ANSWER | FOR_ENCODE | FOR_LOGITS, /* media that the command line names */
    FOR_MEDIA = FOR_SHOWN | FOR_BATCH | FOR_SERVE,
    FOR_SESSIONS = FOR_ANSWERS | FOR_SERVE | FOR_INFO | FOR_BENCH | FOR_PERPLEXITY | FOR_LOGITS | FOR_CALIBRATE,
    FOR_MODELS = FOR_SESSIONS | FOR_TOKENIZE | FOR_DETOKENIZE | FOR_RENDER | FOR_ENCODE | FOR_LIST
};

static const option options[] = {
    { NULL, NULL, NULL, OPTION_HEADING, 0, 0, 0, 0, "Model and prompt" },
    { "-m", "--model", "FILE", OPTION_PATH, FIELD(model), 0, 0, FOR_MODELS, "model file written by export.py" },
    { "-p", "--prompt", "TEXT", OPTION_INPUT, INPUT_TEXT, 0, 0, FOR_ANSWER | FOR_TOKENIZE, "text of the prompt" },
    { "-f", "--file", "FILE", OPTION_INPUT, INPUT_FILE, 0, 0,
      FOR_ANSWER | FOR_TOKENIZE | FOR_DETOKENIZE | FOR_PERPLEXITY, "text of FILE; - is standard input" },
    { "-f", "--file", "FILE", OPTION_INPUT, INPUT_FILE, 0, 0, FOR_CALIBRATE,
      "text of FILE; - is standard input (default: the text that comes with the program)" },
    { "-f", "--file", "FILE", OPTION_INPUT, INPUT_AUDIO, 0, 0, FOR_MEL, "a sound: WAV, or what ffmpeg reads" },
    { "-f", "--file", "FILE", OPTION_INPUT, INPUT_IMAGE, 0, 0, FOR_PATCHES,
      "PNG, JPEG, BMP, PPM, or what ffmpeg reads" },
    { NULL, "--block", "N", OPTION_INT, FIELD(block), 0, INT_MAX, FOR_MEL, "which block of at most 30 s (default 0)" },
    { NULL, "--template", "NAME", OPTION_TEXT, FIELD(template_name), 0, 0, FOR_RENDER,
      "31b-2026-07, e2b-2026-07 or 31b-2026-04 (default: the model's)" },
    { NULL, NULL, NULL, OPTION_HEADING, 0, 0, 0, 0, "Pictures, sound and video" },
    { NULL, "--image", "FILE", OPTION_INPUT, INPUT_IMAGE, 0, 0, FOR_SHOWN,
      "PNG, JPEG, BMP, PPM, or what ffmpeg reads" },
    { NULL, "--audio", "FILE", OPTION_INPUT, INPUT_AUDIO, 0, 0, FOR_SHOWN, "a sound: WAV, or what ffmpeg reads" },
    { NULL, "--video", "FILE", OPTION_INPUT, INPUT_VIDEO, 0, 0, FOR_SHOWN, "a video: y4m, or what ffmpeg reads" },
    { NULL, "--image-tokens", "N", OPTION_BUDGET, FIELD(image_tokens), 0, 0, FOR_MEDIA | FOR_PATCHES,
      "soft tokens of a picture: 70, 140, 280 (default), 560 or 1120; of those behind it, and before the first" },
    { NULL, "--frame-tokens", "N", OPTION_BUDGET, FIELD(frame_tokens), 0, 0, FOR_MEDIA,
      "soft tokens of a frame of a video, likewise (default 70)" },
    { NULL, "--frames", "N", OPTION_INT, FIELD(frames), 1, 1024, FOR_MEDIA, "frames of a video (default 32)" },
    { NULL, "--fps", "X", OPTION_NUMBER, FIELD(fps), 0.001, 1000, FOR_MEDIA, "frames a second instead" },
    { NULL, "--frame-times", NULL, OPTION_FLAG, FIELD(frame_times), 0, 0, FOR_MEDIA,
      "the model is told the times that a video gives its frames, not their number / frame rate" },
    { NULL, "--no-video-audio", NULL, OPTION_FLAG, FIELD(no_video_audio), 0, 0, FOR_ANSWERS,
      "leave the sound of videos out" },
    { NULL, "--ffmpeg", "NAME", OPTION_TEXT, FIELD(ffmpeg), 0, 0, FOR_SHOWN | FOR_BATCH | FOR_MEL | FOR_PATCHES,
      "the ffmpeg program (default ffmpeg)" },
    { NULL, "--ffmpeg", "NAME", OPTION_TEXT, FIELD(ffmpeg), 0, 0, FOR_SERVE,
      "read by this program what is not read here (default: none is started)" },
    { NULL, "--max-pixels", "N", OPTION_INT, FIELD(max_pixels), 1, INT_MAX, FOR_MEDIA | FOR_PATCHES,
      "pixels of a picture or frame at most (default 178956970)" },
    { NULL, "--max-file", "N", OPTION_INT, FIELD(max_file), 1, INT_MAX, FOR_MEDIA | FOR_MEL | FOR_PATCHES,
      "MiB of a file at most (default 4096; of a picture 64 and 8 bytes for each of --max-pixels, 1429)" },
    { NULL, NULL, NULL, OPTION_HEADING, 0, 0, 0, 0, "Conversation and tools" },
    { NULL, "--system", "TEXT", OPTION_TEXT, FIELD(system), 0, 0, FOR_ANSWERS, "system prompt" },
    { NULL, "--messages", "FILE", OPTION_PATH, FIELD(messages), 0, 0, FOR_ANSWER,
      "answer this request in OpenAI's format, or list of messages; - is standard input" },
    { NULL, "--media-root", "DIR", OPTION_PATH, FIELD(media_root), 0, 0, FOR_ANSWERS,
      "where the files that a conversation names may stand (default: the folder of its file)" },
    { NULL, "--tools", "JSON", OPTION_PATH, FIELD(tools), 0, 0, FOR_ANSWER,
      "functions the model may call: a file, or the JSON list itself" },
    { NULL, "--tool-choice", "WHICH", OPTION_TEXT, FIELD(tool_choice), 0, 0, FOR_ANSWER,
      "auto (default), none, required, or the name of a function" },
    { NULL, "--tool-exec", "PROGRAM", OPTION_PATH, FIELD(tool_exec), 0, 0, FOR_ANSWER,
      "answer calls by running PROGRAM NAME, arguments on its standard input; asks first. No NAME begins with -" },
    { NULL, "--yes", NULL, OPTION_FLAG, FIELD(yes), 0, 0, FOR_ANSWER, "run it without asking" },
    { NULL, NULL, NULL, OPTION_HEADING, 0, 0, 0, 0, "The form of the answer" },
    { NULL, "--json-schema", "SCHEMA", OPTION_PATH, FIELD(json_schema), 0, 0, FOR_ANSWERS,
      "the answer is JSON that follows this schema: a file, or the schema itself, which begins with {" },
    { NULL, "--strict-schema", NULL, OPTION_FLAG, FIELD(strict_schema), 0, 0, FOR_ANSWERS,
      "what a schema says and cannot be held exactly is an error, and not loosened; of tools too" },
    { NULL, "--closed-schema", NULL, OPTION_FLAG, FIELD(closed_schema), 0, 0, FOR_ANSWERS,
      "objects have only declared members where additionalProperties says nothing" },
    { NULL, "--grammar", "RULES", OPTION_PATH, FIELD(grammar), 0, 0, FOR_ANSWERS,
      "the answer follows these rules: a file, or the rules themselves, which have a ::=" },
    { NULL, "--boxes", "OUT.png", OPTION_PATH, FIELD(boxes), 0, 0, FOR_ANSWER,
      "draw the boxes and points of the answer on the last picture" },
    { NULL, "--raw", NULL, OPTION_FLAG, FIELD(raw), 0, 0, FOR_ANSWERS,
      "no chat template: continue the text, begin-of-sequence token in front" },
    { NULL, "--specials", NULL, OPTION_FLAG, FIELD(specials), 0, 0, FOR_ANSWERS | FOR_TOKENIZE,
      "read markers such as <|turn> in the text as control tokens (with --raw)" },
    { NULL, "--think", "[=N]", OPTION_THINK, FIELD(think), 0, 0, FOR_ANSWERS | FOR_SERVE,
      "think before the answer, N tokens at most" },
    { NULL, "--show-thoughts", NULL, OPTION_FLAG, FIELD(show_thoughts), 0, 0, FOR_ANSWER, "thoughts on stderr" },
    { NULL, NULL, NULL, OPTION_HEADING, 0, 0, 0, 0, "Length and chance" },
    { "-n", "--max-tokens", "N", OPTION_INT, FIELD(max_tokens), 0, INT_MAX, FOR_ANSWERS | FOR_BENCH,
      "tokens to generate at most (default: until the answer or the context ends)" },
    { "-c", "--context", "N", OPTION_CONTEXT, FIELD(n_ctx), 1, INT_MAX, FOR_SESSIONS & ~FOR_CALIBRATE,
      "context: positions at most, or max (default 8192, or what the model has)" },
    { "-c", "--context", "N", OPTION_CONTEXT, FIELD(n_ctx), 1, INT_MAX, FOR_CALIBRATE,
      "tokens that are read together, or max (default 512)" },
    { "-t", "--threads", "N", OPTION_INT, FIELD(n_threads), 1, 256, FOR_SESSIONS | FOR_ENCODE,
      "threads (default: the physical cores)" },
    { NULL, "--temp", "X", OPTION_NUMBER, FIELD(temperature), 0, 1e6, FOR_ANSWERS,
      "temperature, 0: best token (default: the model's)" },
    { NULL, "--top-k", "N", OPTION_INT, FIELD(top_k), 0, INT_MAX, FOR_ANSWERS, "choose among the N best, 0: all" },
    { NULL, "--top-p", "X", OPTION_NUMBER, FIELD(top_p), 0, 1, FOR_ANSWERS,
      "smallest set of this probability, 1: all" },
    { NULL, "--min-p", "X", OPTION_NUMBER, FIELD(min_p), 0, 1, FOR_ANSWERS, "at least X times the best probability" },
    { NULL, "--repeat-penalty", "X", OPTION_NUMBER, FIELD(repeat_penalty), 0, 1e6, FOR_ANSWERS,
      "make tokens seen before less likely, 1: off" },
    { NULL, "--presence-penalty", "X", OPTION_NUMBER, FIELD(presence_penalty), -1e6, 1e6, FOR_ANSWERS,
      "subtracted from logits of tokens in the answer" },
    { NULL, "--frequency-penalty", "X", OPTION_NUMBER, FIELD(frequency_penalty), -1e6, 1e6, FOR_ANSWERS,
      "the same for each time they occur" },
    { NULL, "--logit-bias", "ID:X", OPTION_BIAS, 0, 0, 0, FOR_ANSWERS, "add X to the logit of token ID (repeatable)" },
    { NULL, "--seed", "N", OPTION_SEED, FIELD(seed), 0, 0, FOR_ANSWERS,
      "of the random numbers, or random (default 0: the same call gives the same answer)" },
    { NULL, "--stop", "TEXT", OPTION_STOP, 0, 0, 0, FOR_ANSWERS, "end the answer before TEXT (repeatable)" },
    { NULL, "--no-guard", NULL, OPTION_FLAG, FIELD(no_guard), 0, 0, FOR_ANSWERS,
      "do not end an answer that repeats itself without end" },
    { NULL, "--no-lookup", NULL, OPTION_FLAG, FIELD(no_lookup), 0, 0, FOR_ANSWERS,
      "do not guess from the text what may follow (the answer is the same)" },
    { NULL, "--logprobs", "N", OPTION_INT, FIELD(logprobs), 0, 64, FOR_ANSWERS,
      "log-probabilities of each token and of the N best" },
    { NULL, NULL, NULL, OPTION_HEADING, 0, 0, 0, 0, "Sessions and files" },
    { NULL, "--session", "FILE", OPTION_PATH, FIELD(session), 0, 0, FOR_ANSWER,
      "go on from FILE if it is there, and write it back" },
    { NULL, "--context-shift", NULL, OPTION_FLAG, FIELD(context_shift), 0, 0, FOR_ANSWER,
      "when the context is full, forget the oldest turns of the chat" },
    { NULL, "--no-history", NULL, OPTION_FLAG, FIELD(no_history), 0, 0, FOR_ANSWER,
      "do not read or write the lines that were typed in former chats" },
    { NULL, "--bos", NULL, OPTION_FLAG, FIELD(bos), 0, 0, FOR_TOKENIZE, "put the begin-of-sequence token in front" },
    { NULL, "--skip-specials", NULL, OPTION_FLAG, FIELD(skip_specials), 0, 0, FOR_DETOKENIZE,
      "leave control tokens out" },
    { NULL, "--tokens", "LIST", OPTION_TEXT, FIELD(tokens), 0, 0, FOR_LOGITS,
      "token ids (\"2,818,5279\"), or @FILE with them; nothing is added" },
    { NULL, "--all", NULL, OPTION_FLAG, FIELD(all), 0, 0, FOR_LOGITS, "every position, not only the last" },
    { NULL, "--dump", "FILE", OPTION_PATH, FIELD(dump), 0, 0, FOR_LOGITS,
      "every activation of every layer and token as safetensors, by its name in MODEL.md" },
    { "-o", "--output", "FILE", OPTION_PATH, FIELD(output), 0, 0, FOR_LOGITS | FOR_ENCODE | FOR_MEL | FOR_PATCHES,
      "little-endian float32; - is standard output" },
    { "-o", "--output", "FILE", OPTION_PATH, FIELD(output), 0, 0, FOR_CALIBRATE,
      "the statistics, as safetensors; - is standard output" },
    { "-o", "--output", "FILE", OPTION_PATH, FIELD(output), 0, 0, FOR_BATCH,
      "the answers, a line each; - is standard output (default)" },
    { NULL, "--parallel", "N", OPTION_INT, FIELD(parallel), 1, MAX_PARALLEL, FOR_BATCH,
      "answer N lines at a time (default: as many as fit in memory, at most 8)" },
    { NULL, "--parallel", "N", OPTION_INT, FIELD(parallel), 1, MAX_PARALLEL, FOR_BENCH,
      "decode N answers at a time; decode is the tokens/s of all (default 1)" },
    { NULL, "--unordered", NULL, OPTION_FLAG, FIELD(unordered), 0, 0, FOR_BATCH,
      "write each answer when it is finished, not in the order of the lines" },
    { NULL, "--resume", NULL, OPTION_FLAG, FIELD(resume), 0, 0, FOR_BATCH,
      "keep the answers that the file of -o has, and answer the other lines" },
    { NULL, "--nll", "FILE", OPTION_PATH, FIELD(nll), 0, 0, FOR_PERPLEXITY,
      "negative log-likelihood of each token, little-endian float32" },
    { NULL, "--lengths", "LIST", OPTION_TEXT, FIELD(lengths), 0, 0, FOR_BENCH,
      "prompt lengths (default 128,512,2048,8192, those that the context has room for)" },
    { NULL, "--repeat", "N", OPTION_INT, FIELD(repeat), 1, 1000, FOR_BENCH, "runs, of which the median (default 3)" },
    { NULL, NULL, NULL, OPTION_HEADING, 0, 0, 0, 0, "Server" },
    { NULL, "--host", "NAME", OPTION_TEXT, FIELD(host), 0, 0, FOR_SERVE,
      "address to listen on (default 127.0.0.1: this machine alone)" },
    { NULL, "--port", "N", OPTION_INT, FIELD(port), 0, 65535, FOR_SERVE, "port, 0: any (default 8080)" },
    { NULL, "--parallel", "N", OPTION_INT, FIELD(parallel), 1, MAX_PARALLEL, FOR_SERVE,
      "answer N requests at a time (default 4)" },
    { NULL, "--max-queue", "N", OPTION_INT, FIELD(max_queue), 0, 10000, FOR_SERVE,
      "requests that may wait beside them; more are told to come again (default 32)" },
    { NULL, "--timeout", "X", OPTION_NUMBER, FIELD(timeout), 0.001, 1e6, FOR_SERVE,
      "seconds of a request, waiting and answer (default 600)" },
    { NULL, "--max-body", "SIZE", OPTION_BYTES, FIELD(max_body), 1024, 2147483648.0, FOR_SERVE,
      "bytes of a request (default 64M)" },
    { NULL, "--api-key-file", "FILE", OPTION_PATH, FIELD(api_key_file), 0, 0, FOR_SERVE,
      "whoever asks needs one of these keys, a line each" },
    { NULL, "--insecure", NULL, OPTION_FLAG, FIELD(insecure), 0, 0, FOR_SERVE, "let other machines ask without a key" },
    { NULL, "--cors", "ORIGIN", OPTION_TEXT, FIELD(cors), 0, 0, FOR_SERVE,
      "let pages of this origin ask, as https://example.org; * any" },
    { NULL, "--trace", "FILE", OPTION_PATH, FIELD(trace), 0, 0, FOR_SERVE,
      "add a line for each request, with its prompt; SIGHUP opens it again" },
    { NULL, NULL, NULL, OPTION_HEADING, 0, 0, 0, 0, "Machine and output" },
    { NULL, "--kv", "TYPE", OPTION_KV, FIELD(kv), 0, 0, FOR_SESSIONS,
      "keys and values: f16, f32 or q8_0 (default f16; f32 for f32 models)" },
    { NULL, "--static-activations", NULL, OPTION_FLAG, FIELD(static_activations), 0, 0, FOR_SESSIONS | FOR_ENCODE,
      "round activations by the scales of a mobile checkpoint, as its reference does (default: finer)" },
    { NULL, "--mlock", NULL, OPTION_FLAG, FIELD(lock_memory), 0, 0, FOR_SESSIONS,
      "lock the weights in memory: nothing pages them out" },
    { NULL, "--huge-pages", NULL, OPTION_FLAG, FIELD(huge_pages), 0, 0, FOR_SESSIONS,
      "copy the weights into huge pages: opens slower, answers faster" },
    { NULL, "--no-mmap", NULL, OPTION_FLAG, FIELD(no_mmap), 0, 0, FOR_SESSIONS | FOR_ENCODE,
      "read the model file into memory and do not map it: it may be cut short or its disk go away" },
    { NULL, "--isa", "NAME", OPTION_TEXT, FIELD(isa), 0, 0, FOR_SESSIONS | FOR_ENCODE,
      "kernels (default: the best of this CPU)" },
    { NULL, "--json", "[=openai]", OPTION_JSON, FIELD(json), 0, 0, FOR_ANSWER,
      "print one JSON object, ours or a chat.completion" },
    { NULL, "--json", NULL, OPTION_FLAG, FIELD(json), 0, 0,
      FOR_BENCH | FOR_PERPLEXITY | FOR_ENCODE | FOR_INFO | FOR_LIST, "print JSON" },
    { NULL, "--tensors", NULL, OPTION_FLAG, FIELD(list_tensors), 0, 0, FOR_INFO,
      "list every tensor: its type, layout, shape and bytes" },
    { NULL, "--quiet", NULL, OPTION_FLAG, FIELD(quiet), 0, 0, FOR_MODELS, "only errors and warnings on stderr" },
    { NULL, "--man", NULL, OPTION_FLAG, FIELD(man), 0, 0, FOR_HELP, "the man page, for troff" },
    { NULL, "--completions", "SHELL", OPTION_TEXT, FIELD(completions), 0, 0, FOR_HELP,
      "what bash, zsh or fish read to complete options, commands and files" },
    { NULL, "--no-config", NULL, OPTION_FLAG, FIELD(no_config), 0, 0, ~0u, "do not read ~/.config/gemma4/config" },
    { "-h", "--help", NULL, OPTION_FLAG, FIELD(help), 0, 0, ~0u, "help" },
    { NULL, "--version", NULL, OPTION_FLAG, FIELD(version), 0, 0, ~0u, "the version" },
};
enum { N_OPTIONS = sizeof options / sizeof options[0] };

/* ---- A chat model: one question, or a conversation ------------------------------------------------------- */

/* The parts of the command line's question. Texts that follow each other are one text, byte for byte; without any text
 * standard input is one. */
static int question_parts(const arguments *a, message_part **parts, int *n)
{
    message_part *p = NULL;
    for (int i = 0; i < a->n_inputs; i++) {
        const input *in = &a->inputs[i];
        g4_part_kind kind = input_part(in->kind);
        int status = DONE, joins = kind == G4_PART_TEXT && p != NULL && p->kind == G4_PART_TEXT;
        if (!joins) p = part_add(parts, n, kind);
        if (p == NULL) return FAILED;
        p->budget = in->budget;
        if (in->kind == INPUT_FILE)
            status = text_read(in->value, &p->text);
        else
            buffer_str(&p->text, in->value);
        if (status != DONE) return status;
    }
    if (!inputs_want_text(a)) return DONE;
    p = part_add(parts, n, G4_PART_TEXT);
    return p != NULL ? text_read("-", &p->text) : FAILED;
}

/* Without its texts, which the template trims, would there be nothing to answer? */
static int is_empty(const message_part *parts, int n)
{
    for (int i = 0; i < n; i++) {
        const char *text = buffer_text(&parts[i].text);
        if (parts[i].kind != G4_PART_TEXT || strspn(text, " \t\r\n") < parts[i].text.len) return 0;
    }
    return 1;
}

static int ask(conversation *c)
{
    message_part *parts = NULL;
    int n = 0, status = question_parts(c->args, &parts, &n);
    if (status == DONE && is_empty(parts, n)) {
        status =
            inputs_want_text(c->args)
                ? say(FAILED, "standard input is empty: give a question in quotes, or behind -p")
                : say(inputs_are_words(c->args) ? USAGE : FAILED, "the prompt is empty: there is nothing to answer");
    }
    if (status == DONE) return message_add(c, G4_ROLE_USER, parts, n);
    parts_free(parts, n);
    return status;
}

/* The media of the command line go with the user's first message. */
static int attach_inputs(conversation *c)
{
    int status = DONE;
    for (int i = 0; status == DONE && i < c->args->n_inputs; i++) {
        const input *in = &c->args->inputs[i];
        status = talk_attach(c, input_part(in->kind), in->value, in->budget);
    }
    return status;
}

static int answer_chat(conversation *c)
{
    const arguments *a = c->args;
    c->on_terminal = a->messages == NULL && !inputs_have_text(a) && isatty(STDIN_FILENO);
    int status = a->messages != NULL ? document_read(c) : DONE;
    if (status == DONE) status = conversation_guide(c);
    if (status == DONE) status = conversation_open(c, a->session);
    if (status == DONE && a->system != NULL && a->system[0] != '\0') status = talk_system(c, a->system);
    int n = c->n;
    if (c->on_terminal) {
        if (status == DONE) status = attach_inputs(c);
        if (status == DONE) status = talk(c);
    } else {
        if (status == DONE && a->messages == NULL) status = ask(c);
        if (status == DONE) status = conversation_answer(c);
    }
    /* an answer whose calls could not be carried out is kept too */
    int is_answered = status == FAILED && c->n > n && c->messages[c->n - 1].role == G4_ROLE_MODEL;
    if (a->session == NULL || (status != DONE && !is_answered)) return status;
    int saved = conversation_save(c, a->session);
    return status != DONE ? status : saved;
}

/* ---- An answer ------------------------------------------------------------------------------------------- */

/* Do the options go with the model? */
static int check_model(const arguments *a, const g4_engine_info *info, int raw)
{
    for (int i = 0; i < a->n_bias; i++) {
        if (a->bias[i].token >= info->n_vocab) {
            return say(FAILED, "--logit-bias: token id %d is out of range: the vocabulary ends at %d",
                       (int)a->bias[i].token, info->n_vocab - 1);
        }
    }
    if (raw && chat_option(a) != NULL) {
        return say(FAILED, "%s is a base model: it has no chat template, so no %s", info->name, chat_option(a));
    }
    if (!raw && a->specials) return say(USAGE, "--specials needs --raw");
    if (raw && !a->raw && !a->quiet) say(DONE, "%s is a base model: it continues the text, as with --raw", info->name);
    return DONE;
}

static int run_answer(arguments *a)
{
    conversation c = { .args = a, .thinking = a->think != 0 };
    int status = model_open(&c.engine, a);
    if (status != DONE) return status;
    g4_engine_get_info(c.engine, &c.info);
    c.raw = a->raw || !c.info.is_chat;
    status = check_model(a, &c.info, c.raw);
    if (status == DONE) {
        loader_start(&c.loader, c.engine, !a->quiet && a->n_inputs > 0 && isatty(STDERR_FILENO));
        status = c.raw ? answer_raw(&c) : answer_chat(&c);
    }
    if (a->session != NULL && status != DONE && status == interrupted())
        say(DONE, "interrupted: %s is as it was", a->session);
    conversation_free(&c);
    return status;
}

/* ---- main ------------------------------------------------------------------------------------------------- */

static const cli_command commands[] = {
    { "", run_answer, FOR_ANSWER, WORDS_PROMPT, "", "answer a question, or chat" },
    { "run", run_answer, FOR_ANSWER, WORDS_PROMPT, "[MODEL] ['QUESTION'] [OPTION...]",
      "answer a question; without one chat on a terminal, or read a pipe" },
    { "chat", run_answer, FOR_ANSWER, WORDS_PROMPT, "[MODEL.g4] [OPTION...]",
      "the same, which chats without a question" },
    { "batch", run_batch, FOR_BATCH, WORDS_REQUESTS, "[-m MODEL] [-o OUT.jsonl] [--parallel N] FILE.jsonl|-",
      "answer a file of requests in OpenAI's format, several at a time" },
    { "serve", run_serve, FOR_SERVE, WORDS_NONE, "[-m MODEL] [--host NAME] [--port N] [--parallel N]",
      "answer clients of OpenAI's format over HTTP" },
    { "info", run_info, FOR_INFO, WORDS_NONE, "[-m MODEL] [-c N] [--tensors]",
      "what the model is and the memory it needs" },
    { "models", run_models, FOR_LIST, WORDS_NONE, "[--json]", "the model files that are found, * is used without -m" },
    { "bench", run_bench, FOR_BENCH, WORDS_NONE, "[-m MODEL] [--lengths LIST] [--parallel N]",
      "speed of reading and of answering" },
    { "tokenize", run_tokenize, FOR_TOKENIZE, WORDS_PROMPT, "[-m MODEL] ['TEXT' | -f FILE]",
      "token ids of a text, a file or standard input" },
    { "detokenize", run_detokenize, FOR_DETOKENIZE, WORDS_NONE, "[-m MODEL] [-f FILE]",
      "bytes of the token ids in FILE or standard input" },
    { "render", run_render, FOR_RENDER, WORDS_NONE, "[-m MODEL] < JSON",
      "the prompt of a conversation, as the chat template makes it" },
    { "perplexity", run_perplexity, FOR_PERPLEXITY, WORDS_NONE, "[-m MODEL] -f TEXT",
      "how well the model predicts a text" },
    { "calibrate", run_calibrate, FOR_CALIBRATE, WORDS_NONE, "[-m MODEL] [-f TEXT] -o FILE",
      "what weights matter, for export.py --calibration" },
    { "logits", run_logits, FOR_LOGITS, WORDS_NONE, "[-m MODEL] --tokens LIST (-o FILE | --dump FILE)",
      "scores of the next token" },
    { "encode", run_encode, FOR_ENCODE, WORDS_NONE, "[-m MODEL] (--image F | --audio F | --video F) -o FILE",
      "soft tokens of a picture, a sound or a video" },
    { "mel", run_mel, FOR_MEL, WORDS_NONE, "-f WAV -o FILE",
      "log-mel frames of a sound, as the audio tower reads them" },
    { "patches", run_patches, FOR_PATCHES, WORDS_NONE, "-f PICTURE -o FILE",
      "patches of a picture, as the vision tower reads them" },
    { "help", run_help, FOR_HELP, WORDS_TOPIC, "[COMMAND] [--man | --completions SHELL]",
      "help; the man page; completions for bash, zsh or fish" },
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static int run(arguments *a, const cli_command *c)
{
    int status = c->bit == FOR_BATCH ? requests_check(a) : DONE;
    if (status == DONE) status = arguments_check(a);
    if (status == DONE && c->bit == FOR_ANSWER) status = inputs_check(a);
    if (status != DONE) return status;
    arguments_warn(a);
    if (c->bit == FOR_ANSWER) inputs_order(a);
    return c->run(a);
}

static int print_version(void)
{
    buffer b = { 0 };
    buffer_fmt(&b, "gemma4 %s\n", G4_VERSION);
    int status = print_buffer(&b);
    buffer_free(&b);
    return status;
}

/* A stream that is closed must not become a file that is opened later: writing to it fails, as it should. */
static void hold_streams(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0) open("/dev/null", O_RDONLY); /* the lowest that is free */
    }
}

int main(int argc, char **argv)
{
    const syntax grammar = { options, N_OPTIONS, commands, N_COMMANDS };
    const cli_command *c;
    arguments a = { .syntax = &grammar,
                    .max_tokens = -1,
                    .top_k = -1,
                    .logprobs = -1,
                    .temperature = NAN,
                    .top_p = NAN,
                    .min_p = NAN,
                    .repeat_penalty = NAN,
                    .presence_penalty = NAN,
                    .frequency_penalty = NAN };
    hold_streams();
    watch_signals();
    int status = arguments_read(&a, argc, argv, &c);
    if (status == DONE && a.help)
        status = help_print(&grammar, c);
    else if (status == DONE && a.version)
        status = print_version();
    else if (status == DONE && c->bit != FOR_HELP)
        status = config_read(&a, c);
    if (status == DONE && !a.help && !a.version) status = run(&a, c);
    arguments_free(&a);
    return status;
}
