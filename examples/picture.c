/* picture MODEL.g4 PICTURE [QUESTION] - ask about a picture (PNG, JPEG, BMP, PPM); boxes in the answer are printed in
 * its pixels. */
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
    g4_image image = { 0 };
    g4_generate_options limits = { .max_tokens = 300 };
    g4_respond_options options = { .generate = &limits, .part = print };
    if (argc < 3) {
        fprintf(stderr, "usage: picture MODEL.g4 PICTURE [QUESTION]\n");
        return 2;
    }
    if (g4_image_load(&image, argv[2], NULL, &err)) goto done;
    if (g4_engine_open(&e, &(g4_engine_options) { .model_path = argv[1] }, &err)) goto done;
    if (g4_session_open(&s, e, NULL, &err)) goto done;
    g4_part parts[2] = { { .kind = G4_PART_IMAGE, .image = &image },
                         { .kind = G4_PART_TEXT, .text = argc > 3 ? argv[3] : "What is in this picture?" } };
    g4_message message = { .role = G4_ROLE_USER, .parts = parts, .n_parts = 2 };
    if (g4_chat_open(&chat, e, &message, 1, NULL, &err) || g4_session_sync_chat(s, chat, NULL, &err)) goto done;
    if (g4_session_respond(s, chat, &options, &answer, NULL, &err)) goto done;
    printf("\n");
    int n, n_boxes;
    const g4_part *p = g4_response_parts(answer, &n);
    for (int i = 0; i < n; i++) {
        g4_box *boxes;
        if (p[i].kind != G4_PART_TEXT ||
            g4_boxes_read(&boxes, &n_boxes, p[i].text, p[i].text_len, image.width, image.height, NULL, &err))
            continue;
        for (int k = 0; k < n_boxes; k++)
            printf("%s: %d,%d to %d,%d\n", boxes[k].label, boxes[k].x0, boxes[k].y0, boxes[k].x1, boxes[k].y1);
        g4_boxes_free(boxes, n_boxes, NULL);
    }
done:
    if (err.code != G4_OK) fprintf(stderr, "picture: %s\n", err.message);
    g4_response_close(answer);
    g4_chat_close(chat);
    g4_session_close(s);
    g4_engine_close(e);
    g4_image_free(&image, NULL);
    return err.code != G4_OK;
}
