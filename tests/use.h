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
    return g4_test_end();
}

#endif
