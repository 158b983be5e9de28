/* answers.h - a written reply with markers in it, fed to a parser piece by piece; shared by test_answer.c and
 * fuzz_reply.c. */
#ifndef G4_ANSWERS_H
#define G4_ANSWERS_H

#include <string.h>

#include "chat/chat.h"

static const struct {
    const char *name;
    g4_control control;
} g4_markers[] = { { "<|channel>", G4_CONTROL_CHANNEL },
                   { "<channel|>", G4_CONTROL_CHANNEL_END },
                   { "<|tool_call>", G4_CONTROL_CALL },
                   { "<tool_call|>", G4_CONTROL_CALL_END },
                   { "<|tool_response>", G4_CONTROL_RESPONSE },
                   { "<|\"|>", G4_CONTROL_QUOTE },
                   { "<|turn>", G4_CONTROL_TURN },
                   { "<turn|>", G4_CONTROL_TURN_END },
                   { "<|image|>", G4_CONTROL_OTHER } };

/* Feed s, its markers as control tokens and the text between them in pieces of at most `piece` bytes. */
static inline int g4_feed_all(g4_response *r, const char *s, size_t n, size_t piece)
{
    size_t at = 0;
    while (at < n) {
        size_t k;
        for (k = 0; k < sizeof g4_markers / sizeof g4_markers[0]; k++) {
            size_t len = strlen(g4_markers[k].name);
            if (n - at >= len && memcmp(s + at, g4_markers[k].name, len) == 0) break;
        }
        if (k < sizeof g4_markers / sizeof g4_markers[0]) {
            if (g4_response_feed(r, g4_markers[k].control, NULL, 0) != 0) return 1;
            at += strlen(g4_markers[k].name);
            continue;
        }
        size_t len = 1;
        while (len < piece && at + len < n && s[at + len] != '<') len++;
        if (g4_response_feed(r, G4_CONTROL_NONE, s + at, len) != 0) return 1;
        at += len;
    }
    return 0;
}

/* All parts as one text: kind{name|text}, and ! behind what is incomplete. */
static inline void g4_show_parts(g4_buf *b, const g4_response *r)
{
    int n;
    const g4_part *p = g4_response_parts(r, &n);
    for (int i = 0; i < n; i++) {
        if (p[i].kind == G4_PART_THOUGHT)
            g4_buf_str(b, "thought{");
        else if (p[i].kind == G4_PART_TEXT)
            g4_buf_str(b, "text{");
        else
            g4_buf_fmt(b, "call{%s|", p[i].name);
        g4_buf_add(b, p[i].text, p[i].text_len);
        g4_buf_str(b, p[i].incomplete ? "}!" : "}");
    }
}

#endif
