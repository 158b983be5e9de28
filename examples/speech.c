/* speech MODEL.g4 SOUND [REQUEST] - write down what is said in a sound file (WAV; others through ffmpeg) of any length.
 */
#include <stdio.h>

#include "gemma4.h"

static int print(void *user, int index, const g4_part *delta)
{
    (void)user, (void)index;
    if (delta->kind == G4_PART_TEXT) fwrite(delta->text, 1, delta->text_len, stdout);
    return fflush(stdout);
}

int main(int argc, char **argv)
{
    g4_error err = { G4_OK, "" };
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_chat *chat = NULL;
    g4_response *answer = NULL;
    g4_audio sound = { 0 };
    g4_generate_options limits = { .max_tokens = 1000 };
    g4_respond_options options = { .generate = &limits, .part = print };
    if (argc < 3) {
        fprintf(stderr, "usage: speech MODEL.g4 SOUND [REQUEST]\n");
        return 2;
    }
    if (g4_audio_load(&sound, argv[2], NULL, &err)) goto done;
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = argv[1] }, &err)) goto done;
    if (g4_session_open(&s, e, NULL, &err)) goto done;
    g4_part parts[2] = { { .kind = G4_PART_AUDIO, .audio = &sound },
                         { .kind = G4_PART_TEXT,
                           .text = argc > 3 ? argv[3] : "Transcribe the speech in this audio." } };
    g4_message message = { .role = G4_ROLE_USER, .parts = parts, .n_parts = 2 };
    if (g4_chat_open(&chat, e, &message, 1, NULL, &err) || g4_session_sync_chat(s, chat, NULL, &err)) goto done;
    if (g4_session_respond(s, chat, &options, &answer, NULL, &err)) goto done;
    printf("\n");
done:
    if (err.code != G4_OK) fprintf(stderr, "speech: %s\n", err.message);
    g4_response_close(answer);
    g4_chat_close(chat);
    g4_session_close(s);
    g4_engine_close(e);
    g4_audio_free(&sound, NULL);
    return err.code != G4_OK;
}
