/* loop MODEL.g4 [TEXT] - a loop of one's own: choose a token, look at it, evaluate it. The tokens are those that
 * g4_session_generate would write; it shows how likely each was, and what else was where the choice was not clear. */
#include <math.h>
#include <stdio.h>

#include "gemma4.h"

static void show(const g4_engine *e, const float *logits, g4_token token)
{
    char text[257];
    g4_candidate best[2];
    text[g4_token_bytes(e, token, 0, text)] = '\0';
    printf("%5.1f %%  %s", 100 * exp(g4_logits_logprob(e, logits, token)), text);
    if (g4_logits_top(e, logits, 2, best) == 2 && exp(best[0].logprob) < 0.5) {
        const g4_token other = best[best[0].token == token].token;
        text[g4_token_bytes(e, other, 0, text)] = '\0';
        printf("  (or %s)", text);
    }
    putchar('\n');
}

int main(int argc, char **argv)
{
    g4_error err = { G4_OK, "" };
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_sampling greedy = { 0 };
    const char *model = argc > 1 ? argv[1] : "models/tiny.g4", *text = argc > 2 ? argv[2] : "The capital of France is";
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = model }, &err) == G4_OK &&
        g4_session_open(&s, e, NULL, &err) == G4_OK && g4_session_eval_text(s, text, 0, &err) == G4_OK) {
        g4_choose_options opt = { .sampling = &greedy, .reply_start = g4_session_n(s) };
        for (int i = 0; i < 16; i++) {
            g4_token token;
            if (g4_session_choose(s, &opt, &token, &err) != G4_OK || g4_token_is_stop(e, token)) break;
            show(e, g4_session_logits(s), token);
            if (g4_session_eval(s, &token, 1, &err) != G4_OK) break;
        }
    }
    if (err.code != G4_OK) fprintf(stderr, "loop: %s\n", err.message);
    g4_session_close(s);
    g4_engine_close(e);
    return err.code != G4_OK;
}
