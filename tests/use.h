/* use.h - what every tests/use_* program does with the library, whichever way it got it; C11 and C++11. */
#ifndef G4_TEST_USE_H
#define G4_TEST_USE_H

#define G4_USE_MODEL "tests/data/text_e2b.g4"

#include <string.h>

#include "test.h"

static int g4_count_output(void *user, const g4_output *out)
{
    int *n = (int *)user;
    *n += 1;
    return out->token < 0;
}

/* Prints a hash of the logits after a short prompt. tests/test_contraction.sh compares what the programs print: however
 * the library was built, the bits are the same. */
static void g4_use_logits(const char *model, const char *isa)
{
    g4_error err;
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_engine_options opt;
    g4_engine_info info;
    const g4_token ids[6] = { 2, 5, 7, 11, 13, 17 };
    memset(&opt, 0, sizeof opt);
    opt.model_path = model;
    opt.isa = isa;
    if (g4_engine_open(&e, &opt, &err) == G4_OK && g4_session_open(&s, e, NULL, &err) == G4_OK &&
        g4_session_eval(s, ids, 6, &err) == G4_OK) {
        const float *logits = g4_session_logits(s);
        uint64_t hash = 0;
        g4_engine_get_info(e, &info);
        for (int i = 0; i < info.n_vocab; i++) {
            uint32_t bits;
            memcpy(&bits, &logits[i], sizeof bits);
            hash = (hash ^ bits) * 0x9E3779B97F4A7C15u;
            hash ^= hash >> 32;
        }
        printf("logits of %s, %s: %08lx%08lx\n", model, info.isa, (unsigned long)(hash >> 32),
               (unsigned long)(hash & 0xFFFFFFFFu));
        err.message[0] = 0;
    }
    G4_EXPECT(s != NULL, "%s, %s: %s", model, isa ? isa : "best table", err.message);
    g4_session_close(s);
    g4_engine_close(e);
}

static int g4_use(const char *model)
{
    g4_error err;
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_engine_options opt;
    memset(&opt, 0, sizeof opt);
    opt.model_path = "tests/no-such-file.g4";
    G4_EXPECT(g4_engine_open(&e, &opt, &err) == G4_ERR_IO && e == NULL, "code %d", (int)err.code);
    G4_EXPECT(strstr(err.message, "no-such-file") != NULL, "message: %s", err.message);
    opt.model_path = model;
    G4_EXPECT(g4_engine_open(&e, &opt, &err) == G4_OK, "message: %s", err.message);
    if (e == NULL) return g4_test_end();
    G4_EXPECT(g4_session_open(&s, e, NULL, &err) == G4_OK, "message: %s", err.message);
    if (s != NULL) {
        const g4_token ids[4] = { 2, 5, 7, 11 };
        int counted = 0;
        g4_result result;
        g4_generate_options gen;
        memset(&gen, 0, sizeof gen);
        memset(&result, 0, sizeof result);
        gen.max_tokens = 3;
        gen.ignore_stop_ids = 1;
        gen.output = g4_count_output;
        gen.user = &counted;
        G4_EXPECT(g4_session_eval(s, ids, 4, &err) == G4_OK, "message: %s", err.message);
        G4_EXPECT(g4_session_generate(s, &gen, &result, &err) == G4_OK, "message: %s", err.message);
        G4_EXPECT(counted == 3 && result.n_tokens == 3, "%d outputs, %d tokens", counted, result.n_tokens);
        G4_EXPECT(g4_session_n(s) == 7, "%d tokens", g4_session_n(s));
    }
    g4_session_close(s);
    g4_engine_close(e);
    g4_use_logits(model, NULL);
    g4_use_logits(model, "scalar");
    return g4_test_end();
}

#endif
