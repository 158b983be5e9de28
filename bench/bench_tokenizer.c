/* Speed of the tokenizer on one core. usage: bench_tokenizer [VOCABULARY.g4 [TEXT...]]
 *
 * Without texts: the licences that Debian installs, if they are there, and this repository's own prose. Then, always,
 * texts that are hard for byte-pair encoders: one MB without a place to cut. Best of nine runs, in processor time;
 * bytes are of UTF-8. */
#define _DEFAULT_SOURCE 1 /* clock_gettime under -std=c11 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gemma4.h"
#include "chat/chat.h"

static double g4_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void g4_bench(const g4_tokenizer *t, const char *name, const char *text, size_t len)
{
    double best = 1e9;
    size_t n = 0;
    for (int i = 0; i < 9; i++) {
        g4_tokens ids = { 0 };
        const double start = g4_now();
        if (g4_tokenizer_encode(t, NULL, text, len, 1, &ids, NULL, NULL) != G4_OK) return;
        const double s = g4_now() - start;
        if (s < best) best = s;
        n = ids.n;
        g4_free(NULL, ids.ids);
    }
    printf("%-34s %8.2f MB %9zu tokens %8.1f MB/s %7.1f M tokens/s\n", name, (double)len / 1e6, n,
           (double)len / best / 1e6, (double)n / best / 1e6);
}

/* Append a file; 0 if it is not there. */
static int g4_add_file(g4_buf *b, const char *path)
{
    char part[65536];
    size_t n;
    FILE *f = fopen(path, "rb");
    if (f == NULL) return 0;
    while ((n = fread(part, 1, sizeof part, f)) > 0) g4_buf_add(b, part, n);
    fclose(f);
    return 1;
}

static void g4_bench_files(const g4_tokenizer *t, const char *name, const char *const *paths, int n)
{
    g4_buf once = { 0 }, b = { 0 };
    for (int i = 0; i < n; i++) g4_add_file(&once, paths[i]);
    while (once.len > 0 && b.len < 1000000) g4_buf_add(&b, once.data, once.len);
    if (b.len > 0 && !b.failed) g4_bench(t, name, b.data, b.len);
    g4_buf_free(&once);
    g4_buf_free(&b);
}

int main(int argc, char **argv)
{
    static const char *const licences[] = { "/usr/share/common-licenses/GPL-3", "/usr/share/common-licenses/LGPL-2.1",
                                            "/usr/share/common-licenses/Apache-2.0",
                                            "/usr/share/common-licenses/MPL-2.0" };
    static const char *const prose[] = { "README.md", "MODEL.md" }, *const code[] = { "tokenizer.c", "gemma4.c" };
    g4_engine *e = NULL;
    g4_error err;
    const char *path = argc > 1 ? argv[1] : "tests/data/vocab.g4";
    const double start = g4_now();
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = path, .n_threads = 1 }, &err) != G4_OK) {
        fprintf(stderr, "bench_tokenizer: %s\n", err.message);
        return 1;
    }
    const g4_tokenizer *t = g4_engine_tokenizer(e);
    printf("open %s: %.2f ms\n", path, 1e3 * (g4_now() - start));
    for (int i = 2; i < argc; i++) g4_bench_files(t, argv[i], (const char *const *)argv + i, 1);
    if (argc <= 2) {
        g4_bench_files(t, "English: licences", licences, 4);
        g4_bench_files(t, "English: README.md, MODEL.md", prose, 2);
        g4_bench_files(t, "C: tokenizer.c, gemma4.c", code, 2);
    }

    const size_t n = 1000000;
    char *text = malloc(n);
    uint64_t x = 1;
    for (int kind = 0; text != NULL && kind < 6; kind++) {
        static const char *const names[] = { "one letter",    "one space",
                                             "one line feed", "random lower-case letters",
                                             "random base64", "random bytes" };
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        for (size_t i = 0; i < n; i++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            const unsigned r = (unsigned)(x >> 40);
            if (kind < 3)
                text[i] = "a \n"[kind];
            else if (kind == 3)
                text[i] = (char)('a' + r % 26);
            else
                text[i] = (char)(kind == 4 ? digits[r % 64] : (int)(r % 256));
        }
        g4_bench(t, names[kind], text, n);
    }
    free(text);
    g4_engine_close(e);
    return 0;
}
