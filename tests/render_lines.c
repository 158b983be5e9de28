/* render_lines TEMPLATE - a filter for tests/test_render_jinja.py: each line of stdin is one conversation as `gemma4
 * render` takes it, each line of stdout {"prompt": ...} or {"error": ...}. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chat/chat.h"

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: render_lines TEMPLATE < conversations.jsonl\n");
        return 2;
    }
    char *line = NULL;
    size_t cap = 0, len = 0;
    for (;;) {
        int ch = getchar();
        if (ch == EOF) break;
        if (len + 1 >= cap) {
            cap = cap == 0 ? 65536 : cap * 2;
            char *p = realloc(line, cap);
            if (p == NULL) break;
            line = p;
        }
        if (ch != '\n') {
            line[len++] = (char)ch;
            continue;
        }
        g4_chat *c;
        g4_error err;
        g4_chat_options opt = { .template_name = argv[1] };
        g4_buf out = { 0 };
        if (g4_chat_parse(&c, NULL, line, len, &opt, &err) == G4_OK) {
            size_t n;
            const char *text = g4_chat_text(c, &n);
            g4_buf_str(&out, "{\"prompt\": ");
            g4_json_quote(&out, text, n);
        } else {
            g4_buf_str(&out, "{\"error\": ");
            g4_json_quote(&out, err.message, strlen(err.message));
        }
        g4_buf_str(&out, "}");
        puts(out.data == NULL ? "" : out.data);
        g4_buf_free(&out);
        g4_chat_close(c);
        len = 0;
    }
    free(line);
    return 0;
}
