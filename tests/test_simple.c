/* test_simple.c - examples/simple.c and the engine, which share no code, give the same logits.
 *
 * Every .g4 file of the folders below that has a text decoder is run through the program, whose path is in G4_SIMPLE
 * (build/simple if it is not set), and through the library with keys and values in float32. The ids are pseudo-random,
 * some more than the model's window, and the placeholders of media are among them.
 */
#define _POSIX_C_SOURCE 200809L
#include <glob.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gemma4.h"
#include "test.h"

static const char *const g4_patterns[] = { "tests/data/text_*.g4", "tests/data/tiny*.g4", "tests/data/media/*.g4",
                                           "models/tiny.g4" };
enum { MIN_MODELS = 11, N_BEYOND = 20, N_NEW = 12 }; /* ids beyond the window; greedy ids */

/* Float32 and bf16 weights leave only the order of sums to differ in, whose noise is 1e-5 to 1e-4. Where weights are
 * quantised the engine also rounds the inputs of every product to 8 bits; that was measured to move the distribution by
 * a KL divergence of 1e-3 to 3e-3 with q8_0 and up to 6e-3 with q4_0. A reader that takes the wrong bits moves it by
 * more than 0.05, mostly by more than 1. */
#define MAX_LOGIT_DIFF 2e-4f
#define CLEAR_MARGIN 1e-3f
static const double g4_max_kl[] = { 0, 0.01, 0.02 };
enum { G4_FLOAT, G4_HAS_Q8_0, G4_HAS_FEWER };
static const char *const g4_kinds[] = { "float", "q8_0", "fewer bits" };

/* ---- The program ------------------------------------------------------------------------------- */

static char g4_out_path[] = "/tmp/g4-test-XXXXXX", g4_made_path[] = "/tmp/g4-test-XXXXXX";

/* Runs the program with these arguments. Returns its exit status, -1 if it had none; text gets what it printed on both
 * streams. */
static int g4_simple(char *text, size_t cap, const char *format, ...)
{
    static char command[1 << 16];
    const char *program = getenv("G4_SIMPLE");
    const int n = snprintf(command, sizeof command, "'%s' ", program && *program ? program : "build/simple");
    va_list args;
    va_start(args, format);
    const int m = vsnprintf(command + n, sizeof command - (size_t)n, format, args);
    va_end(args);
    text[0] = 0;
    if (n < 0 || m < 0 || (size_t)n + (size_t)m + 6 > sizeof command) return -1;
    strcat(command, " 2>&1");
    FILE *f = popen(command, "r");
    if (!f) return -1;
    text[fread(text, 1, cap - 1, f)] = 0;
    const int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- The model and its ids ---------------------------------------------------------------------- */

/* At offset 48 of the file stands where its configuration starts, and 92 bytes into that the window. */
static int g4_window(const char *path)
{
    uint64_t config = 0;
    uint32_t window = 0;
    FILE *f = fopen(path, "rb");
    if (f) {
        if (fseek(f, 48, SEEK_SET) || fread(&config, sizeof config, 1, f) != 1 ||
            fseek(f, (long)config + 92, SEEK_SET) || fread(&window, sizeof window, 1, f) != 1)
            window = 0;
        fclose(f);
    }
    return window < 4096 ? (int)window : 0;
}

/* The coarsest type of the matrices that are multiplied. */
static int g4_kind(const g4_engine *e)
{
    g4_tensor_info t;
    int kind = G4_FLOAT;
    for (int i = 0; g4_engine_get_tensor(e, i, &t); i++) {
        if (strcmp(t.name, "ple.embed") == 0) continue; /* looked up */
        const int is_float = strcmp(t.type, "f32") == 0 || strcmp(t.type, "bf16") == 0;
        const int this_one = is_float ? G4_FLOAT : strcmp(t.type, "q8_0") == 0 ? G4_HAS_Q8_0 : G4_HAS_FEWER;
        if (this_one > kind) kind = this_one;
    }
    return kind;
}

/* ids (n): any of the vocabulary, and the three placeholders twice each, which have no medium behind them here. */
static void g4_make_ids(const g4_engine *e, int n_vocab, g4_token *ids, int n)
{
    static const char *const names[] = { "<|image|>", "<|audio|>", "<|video|>" };
    uint32_t state = 12345;
    for (int i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        ids[i] = (g4_token)((state >> 8) % (uint32_t)n_vocab);
    }
    for (int i = 0; i < 3; i++) {
        g4_token id;
        size_t count;
        if (g4_tokenize(e, names[i], strlen(names[i]), 1, &id, 1, &count, NULL) == G4_OK && count == 1)
            ids[2 + 3 * i] = ids[n - 4 - 3 * i] = id;
    }
}

/* ---- Both, side by side -------------------------------------------------------------------------- */

typedef struct {
    float *rows;
    int n_vocab, n;
} g4_rows;

static int g4_keep_row(void *user, int index, const float *logits)
{
    g4_rows *r = user;
    memcpy(r->rows + (size_t)index * (size_t)r->n_vocab, logits, (size_t)r->n_vocab * sizeof *logits);
    r->n++;
    return 0;
}

static int g4_read_rows(const char *path, float *rows, size_t n)
{
    FILE *f = fopen(path, "rb");
    const int ok = f && fread(rows, sizeof *rows, n, f) == n && fgetc(f) == EOF;
    if (f) fclose(f);
    return ok;
}

static float g4_max_diff(const float *a, const float *b, size_t n)
{
    float most = 0;
    for (size_t i = 0; i < n; i++) {
        const float d = fabsf(a[i] - b[i]);
        if (!(d <= most)) most = d; /* a NaN shows */
    }
    return most;
}

/* Mean over rows of KL(softmax(a) || softmax(b)), in nats. */
static double g4_mean_kl(const float *a, const float *b, int rows, int n)
{
    double sum = 0;
    for (int r = 0; r < rows; r++, a += n, b += n) {
        double ma = a[0], mb = b[0], za = 0, zb = 0;
        for (int i = 1; i < n; i++) ma = fmax(ma, a[i]), mb = fmax(mb, b[i]);
        for (int i = 0; i < n; i++) za += exp(a[i] - ma), zb += exp(b[i] - mb);
        for (int i = 0; i < n; i++) {
            const double la = a[i] - ma - log(za), lb = b[i] - mb - log(zb);
            sum += exp(la) * (la - lb);
        }
    }
    return sum / rows;
}

/* The session follows the program's greedy ids. Each is the best of its logits too, wherever that one is ahead by more
 * than `clear`. Returns how many were. */
static int g4_check_greedy(g4_session *s, const char *printed, int n_vocab, float clear, const char *path)
{
    int n = 0, n_clear = 0, n_same = 0;
    g4_status status = G4_OK;
    for (const char *p = printed; n < N_NEW && status == G4_OK; n++) {
        char *rest;
        const g4_token id = (g4_token)strtol(p, &rest, 10);
        if (rest == p || *rest != (n + 1 < N_NEW ? ',' : '\n') || id < 0 || id >= n_vocab) break;
        p = rest + 1;
        const float *z = g4_session_logits(s);
        int best = 0;
        for (int i = 1; i < n_vocab; i++)
            if (z[i] > z[best]) best = i;
        float second = -INFINITY;
        for (int i = 0; i < n_vocab; i++)
            if (i != best) second = fmaxf(second, z[i]);
        if (z[best] - second > clear) {
            n_clear++;
            n_same += id == best;
        }
        status = g4_session_eval(s, &id, 1, NULL);
    }
    G4_EXPECT(n == N_NEW && status == G4_OK, "%s: %d greedy ids in: %s", path, n, printed);
    G4_EXPECT(n_same == n_clear, "%s: %d of %d clear greedy ids are the engine's", path, n_same, n_clear);
    return n_clear;
}

static void g4_compare(const char *path, g4_engine *e, g4_session *s, const g4_token *ids, int n, int n_vocab)
{
    static char list[1 << 14], printed[1024];
    const size_t all = (size_t)n * (size_t)n_vocab;
    float *simple = malloc(all * sizeof *simple);
    g4_rows rows = { malloc(all * sizeof *rows.rows), n_vocab, 0 };
    g4_error err = { G4_OK, "" };
    size_t at = 0;
    for (int i = 0; i < n && at < sizeof list - 16; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s%d", i > 0 ? "," : "", ids[i]);
    int ok = simple && rows.rows;
    if (ok) {
        const int status = g4_simple(printed, sizeof printed, "%s %s %d %s", path, list, N_NEW, g4_out_path);
        ok = status == 0 && g4_read_rows(g4_out_path, simple, all);
        G4_EXPECT(ok, "%s: exit status %d, %d rows of %d not read: %s", path, status, n, n_vocab, printed);
    }
    if (ok) {
        const g4_prompt prompt = { .tokens = ids, .n = n };
        const g4_status status = g4_session_eval_all(s, &prompt, g4_keep_row, &rows, &err);
        ok = status == G4_OK && rows.n == n;
        G4_EXPECT(ok, "%s: %d rows: %s", path, rows.n, err.message);
    }
    if (ok) {
        const int kind = g4_kind(e);
        const float diff = g4_max_diff(simple, rows.rows, all);
        const double kl = g4_mean_kl(rows.rows, simple, n, n_vocab);
        /* Two best ids change places only if one of the two logits moves by half the margin or more. */
        const int clear = g4_check_greedy(s, printed, n_vocab, kind == G4_FLOAT ? CLEAR_MARGIN : 2 * diff, path);
        printf("%-30s %-10s %3d ids, max difference %.2e, KL %.2e, %2d of %d greedy ids clear\n", path, g4_kinds[kind],
               n, (double)diff, kl, clear, N_NEW);
        if (kind == G4_FLOAT) {
            G4_EXPECT(diff <= MAX_LOGIT_DIFF, "%s: logits differ by %g", path, (double)diff);
            G4_EXPECT(clear >= N_NEW / 2, "%s: only %d greedy ids are clear", path, clear);
        } else {
            G4_EXPECT(isfinite(diff) && kl <= g4_max_kl[kind], "%s: KL %g", path, kl);
        }
    }
    free(simple);
    free(rows.rows);
}

/* Returns 1 if there is a text decoder in the file. */
static int g4_test_model(const char *path)
{
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_engine_info info = { 0 };
    g4_error err = { G4_OK, "" };
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = path, .n_threads = 1 }, &err)) {
        G4_EXPECT(0, "%s: %s", path, err.message);
        return 0;
    }
    g4_engine_get_info(e, &info);
    if (info.n_layers > 0) {
        const int n = g4_window(path) + N_BEYOND;
        g4_token *ids = malloc((size_t)n * sizeof *ids);
        const g4_session_options opt = { .n_ctx = n + N_NEW, .kv = G4_KV_USE_F32 };
        const int ok = n > N_BEYOND && ids && g4_session_open(&s, e, &opt, &err) == G4_OK;
        G4_EXPECT(ok, "%s: %d ids: %s", path, n, err.message);
        if (ok) {
            g4_make_ids(e, info.n_vocab, ids, n);
            g4_compare(path, e, s, ids, n, info.n_vocab);
        }
        free(ids);
    }
    g4_session_close(s);
    g4_engine_close(e);
    return info.n_layers > 0;
}

/* ---- Files made here ------------------------------------------------------------------------------ */

static unsigned char g4_file[1 << 21]; /* one is read and changed at a time */

static size_t g4_load(const char *path)
{
    FILE *f = fopen(path, "rb");
    const size_t n = f ? fread(g4_file, 1, sizeof g4_file, f) : 0;
    if (f) fclose(f);
    G4_EXPECT(n > 4096 && n < sizeof g4_file, "%s: %zu bytes read", path, n);
    return n < sizeof g4_file ? n : 0;
}

/* The first n bytes become the file at g4_made_path. */
static int g4_save(size_t n)
{
    FILE *f = fopen(g4_made_path, "wb");
    const int ok = f && fwrite(g4_file, 1, n, f) == n;
    return f && fclose(f) == 0 && ok;
}

/* The checksum of a model file: four lanes of 64-bit words, as its format says. n is a multiple of 8. */
static uint64_t g4_sum_step(uint64_t h, uint64_t word)
{
    h = (h ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    return h << 29 | h >> 35;
}
static uint64_t g4_sum(const unsigned char *data, size_t n)
{
    uint64_t lane[4] = { 1, 2, 3, 4 };
    for (size_t i = 0; i < (n + 31) / 32 * 4; i++) {
        uint64_t word = 0;
        if (8 * i < n) memcpy(&word, data + 8 * i, 8);
        lane[i % 4] = g4_sum_step(lane[i % 4], word);
    }
    for (int i = 1; i < 4; i++) lane[0] = g4_sum_step(lane[0], lane[i]);
    return lane[0] ^ n;
}

/* What a table that is looked up may be made of: blocks, and in each the numbers of 16 bits; of q4_0 they stand in
 * front of the row, and are bf16 here. Of the last three one is the upper half of a float32. */
static const struct {
    uint32_t type, scale_type, cols, block_cols, block_bytes;
    size_t number_at, n_numbers;
    unsigned char high_byte; /* of a number: so that values are about 1 */
} g4_tables[] = { { 3, 2, 64, 32, 18, 0, 1, 0x3d },      { 4, 1, 64, 32, 20, 0, 2, 0x2c },
                  { 5, 1, 64, 32, 22, 0, 1, 0x2c },      { 6, 1, 64, 32, 24, 0, 2, 0x28 },
                  { 7, 1, 256, 256, 144, 0, 2, 0x14 },   { 8, 1, 256, 256, 176, 0, 2, 0x10 },
                  { 9, 1, 256, 256, 210, 208, 1, 0x10 }, { 10, 0, 256, 256, 68, 2, 1, 0x3f },
                  { 11, 0, 256, 256, 132, 2, 1, 0x3d },  { 12, 0, 256, 256, 260, 2, 1, 0x3b } };

/* No file here has tables of all types: the per-layer table of this one, in float32, becomes each with random bytes. */
static void g4_test_tables(const char *path)
{
    uint64_t head[16], dims[2], at; /* head: 5 checksum, 10 table offset, 11 tensors, 12 data offset */
    const size_t size = g4_load(path);
    if (size == 0) return;
    memcpy(head, g4_file, sizeof head);
    unsigned char *entry = g4_file + head[10], *end = entry + 128 * head[11];
    while (entry < end && strcmp((char *)entry, "ple.embed") != 0) entry += 128;
    G4_EXPECT(entry < end, "%s: no per-layer table", path);
    if (entry == end) return;
    memcpy(dims, entry + 80, sizeof dims);
    memcpy(&at, entry + 104, sizeof at);
    for (size_t k = 0; k < sizeof g4_tables / sizeof *g4_tables; k++) {
        const uint32_t kind[] = { g4_tables[k].type, 1, g4_tables[k].scale_type }; /* layout 1: rows */
        const uint64_t n = (dims[1] + g4_tables[k].cols - 1) / g4_tables[k].cols, block = g4_tables[k].block_bytes;
        const uint64_t row = n * (g4_tables[k].cols / g4_tables[k].block_cols) * block, bytes = dims[0] * row;
        const uint64_t in_front = kind[0] == 3 ? row : block, n_in_front = in_front / block * g4_tables[k].n_numbers;
        memcpy(entry + 64, kind, sizeof kind);
        memcpy(entry + 112, &bytes, sizeof bytes);
        uint32_t state = 54321;
        for (uint64_t i = 0; i < bytes; i++) {
            state = state * 1664525u + 1013904223u;
            const uint64_t number = i % row % in_front - g4_tables[k].number_at; /* byte of the numbers */
            g4_file[at + i] =
                number < 2 * n_in_front && number % 2 == 1 ? g4_tables[k].high_byte : (unsigned char)(state >> 24);
        }
        const uint64_t sum = g4_sum(g4_file + 48, head[12] - 48);
        memcpy(g4_file + 40, &sum, sizeof sum);
        G4_EXPECT(g4_save(size) && g4_test_model(g4_made_path), "%s with a table of type %u", path, kind[0]);
    }
}

/* Damage between begin and end, at every so many bytes, is refused or harmless: the program never dies by a signal. */
static void g4_sweep(const char *path, size_t size, uint64_t begin, uint64_t end, uint64_t step)
{
    char text[4096], arguments[256];
    snprintf(arguments, sizeof arguments, "%s 2,3 1", g4_made_path);
    for (uint64_t i = begin; i < end; i += step) {
        const unsigned char was = g4_file[i];
        g4_file[i] = i % 2 ? 0x7f : 0xff;
        if (g4_save(size)) {
            const int status = g4_simple(text, sizeof text, "%s", arguments);
            G4_EXPECT(status == 0 || status == 1, "%s with byte %d changed: exit status %d", path, (int)i, status);
        }
        g4_file[i] = was;
    }
}

static void g4_test_damage(void)
{
    uint64_t head[16];
    const char *path = "tests/data/text_26b.q8_0.g4";
    size_t size = g4_load(path);
    memcpy(head, g4_file, sizeof head); /* 6 and 7: offset and size of the configuration; 10 and 11: of the table */
    if (size > 0) g4_sweep(path, size, head[6], head[6] + head[7], 3);
    path = "tests/data/text_26b.mixed.g4";
    size = g4_load(path);
    memcpy(head, g4_file, sizeof head);
    if (size > 0) g4_sweep(path, size, head[10] + 64, head[10] + 128 * head[11], 229);
}

/* ---- What is not right ---------------------------------------------------------------------------- */

/* The program ends with that exit status and says why in one line. */
static void g4_expect_refusal(int want, const char *arguments)
{
    static char text[4096];
    const int status = g4_simple(text, sizeof text, "%s", arguments);
    const char *end = strchr(text, '\n');
    G4_EXPECT(status == want && strncmp(text, "simple: ", 8) == 0 && end && end[1] == 0,
              "simple %s: exit status %d and: %s", arguments, status, text);
}

static void g4_test_refusals(const char *path)
{
    static const char *const bad_ids[] = {
        "''", ",", "1,", "1,,2", "x", "1,x", "-1", "'1 2'", "999999", "1.5", "99999999999999999999"
    };
    static const char *const bad_n[] = { "-1", "x", "3x", "''", "1000000", "99999999999999999999" };
    char text[4096], arguments[256];
    g4_expect_refusal(2, "");
    g4_expect_refusal(2, path);
    g4_expect_refusal(2, "a b c d e");
    g4_expect_refusal(1, "tests/data/no_such_file.g4 2");
    g4_expect_refusal(1, "tests/data 2");
    g4_expect_refusal(1, "tests/data/text_e2b.ref 2");
    g4_expect_refusal(1, "tests/data/tokenizer_small.g4 2"); /* without layers */
    for (size_t i = 0; i < sizeof bad_ids / sizeof *bad_ids; i++) {
        snprintf(arguments, sizeof arguments, "%s %s", path, bad_ids[i]);
        g4_expect_refusal(2, arguments);
    }
    for (size_t i = 0; i < sizeof bad_n / sizeof *bad_n; i++) {
        snprintf(arguments, sizeof arguments, "%s 2 %s", path, bad_n[i]);
        g4_expect_refusal(2, arguments);
    }
    snprintf(arguments, sizeof arguments, "%s 2 0 tests/data", path); /* a folder cannot be written */
    g4_expect_refusal(1, arguments);
    int status = g4_simple(text, sizeof text, "%s 2 0", path);
    G4_EXPECT(status == 0 && strcmp(text, "\n") == 0, "no new ids: exit status %d and: %s", status, text);

    const size_t size = g4_load(path);
    snprintf(arguments, sizeof arguments, "%s 2,3 2", g4_made_path);
    const size_t cuts[] = { 0, 1, 127, 128, 1000, size / 2, size - 1 };
    for (size_t i = 0; size > 0 && i < sizeof cuts / sizeof *cuts; i++)
        if (g4_save(cuts[i])) g4_expect_refusal(1, arguments);
    for (size_t i = 1; size > 0 && i <= 16; i++) { /* the header agrees, and tables or tensors are missing */
        const uint64_t claim = 128 + (size - 128) * i / 16;
        memcpy(g4_file + 16, &claim, sizeof claim); /* file_size */
        if (g4_save((size_t)claim) && i < 16) g4_expect_refusal(1, arguments);
    }
    status = g4_simple(text, sizeof text, "%s", arguments);
    G4_EXPECT(status == 0, "a whole copy: exit status %d and: %s", status, text);
}

int main(void)
{
    const int out = mkstemp(g4_out_path), made = mkstemp(g4_made_path);
    G4_EXPECT(out >= 0 && made >= 0, "no temporary files");
    if (out >= 0) close(out);
    if (made >= 0) close(made);
    int n = 0;
    for (size_t i = 0; i < sizeof g4_patterns / sizeof *g4_patterns; i++) {
        glob_t found;
        if (glob(g4_patterns[i], 0, NULL, &found) != 0) continue;
        for (size_t k = 0; k < found.gl_pathc; k++) n += g4_test_model(found.gl_pathv[k]);
        globfree(&found);
    }
    G4_EXPECT(n >= MIN_MODELS, "only %d models found", n);
    g4_test_tables("tests/data/text_e2b.g4");
    g4_test_refusals("tests/data/text_e2b.g4");
    g4_test_damage();
    unlink(g4_out_path);
    unlink(g4_made_path);
    return g4_test_end();
}
