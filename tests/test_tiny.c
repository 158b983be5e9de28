/* The bundled model, as it ships (q8_0) and in q4_0, on every kernel table: each ability on a fixed set of questions
 * whose answers are known; all those with media on the best table. tests/data/tiny.jsonl: a line with a conversation,
 * then a line with the reply as a JSON string; made by tools/eval_tiny.py, which takes only answers that are right in
 * both files by a logit margin above 0.5. */
#include "test.h"
#include "tiny.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define G4_SLOW_BUILD 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define G4_SLOW_BUILD 1
#endif
#endif
#ifndef G4_SLOW_BUILD
#define G4_SLOW_BUILD 0
#endif

static void g4_test_model(const char *path, const char *isa, int most_media)
{
    g4_error err;
    g4_engine *e = NULL;
    FILE *f = fopen("tests/data/tiny.jsonl", "rb");
    g4_status st = g4_engine_open(&e, &(g4_engine_options) { .model_path = path, .isa = isa }, &err);
    G4_EXPECT(f != NULL, "tests/data/tiny.jsonl");
    G4_EXPECT(st == G4_OK, "%s: %s", path, err.message);
    char *ask = NULL, *want = NULL;
    size_t ask_cap = 0, want_cap = 0, len, want_len;
    while (f != NULL && st == G4_OK && g4_tiny_line(f, &ask, &ask_cap, &len) &&
           g4_tiny_line(f, &want, &want_cap, &want_len)) {
        if (strstr(ask, "\"path\"") != NULL && most_media-- <= 0) continue;
        g4_session *s = NULL;
        g4_tiny_answer a = { 0 };
        g4_buf got = { 0 };
        g4_status answered = g4_session_open(&s, e, NULL, &err);
        if (answered == G4_OK) answered = g4_tiny_ask(s, e, ask, len, &a, &err);
        G4_EXPECT(answered == G4_OK, "%s, %s: %s: %s", path, isa, ask, err.message);
        if (answered == G4_OK) {
            g4_json_quote(&got, a.text.data ? a.text.data : "", a.text.len);
            G4_EXPECT(got.len == want_len && memcmp(got.data, want, want_len) == 0, "%s, %s: %s: %s, expected %s", path,
                      isa, ask, got.data, want);
        }
        g4_buf_free(&got);
        g4_buf_free(&a.text);
        free(a.first);
        g4_session_close(s);
    }
    free(ask);
    free(want);
    if (f != NULL) fclose(f);
    g4_engine_close(e);
}

int main(void)
{
    static const char *const models[] = { "models/tiny.g4", "tests/data/tiny-q4_0.g4" };
    /* Sanitizers and emulated CPUs: the best table only. Towers take long on the others: two questions with media. */
    const int slow = G4_SLOW_BUILD || getenv("G4_RUNNER") != NULL;
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        const char *isa;
        for (int i = 0; (isa = g4_isa_name(i)) != NULL && !(slow && i > 0); i++)
            g4_test_model(models[m], isa, slow || i > 0 ? 2 : 1000);
    }
    return g4_test_end();
}
