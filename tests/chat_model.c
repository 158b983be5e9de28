/* chat_model IN.g4 OUT.g4 TEMPLATE - a copy of a model file that has the chat template of that number, stops at the
 * ends of turns and picks the likeliest token: the random models of tests/data, made to converse. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vocab.h"

int main(int argc, char **argv)
{
    g4_tokenizer t;
    uint8_t *blob = argc == 4 ? g4_vocab_open(&t, argv[1]) : NULL, *data = NULL;
    FILE *in = blob != NULL ? fopen(argv[1], "rb") : NULL, *out = NULL;
    g4_file_header h;
    g4_config c;
    int ok = in != NULL && fread(&h, sizeof h, 1, in) == 1 && h.config_size >= sizeof c && h.file_size > h.data_offset;
    if (ok) data = malloc((size_t)h.file_size);
    ok = ok && data != NULL && fseek(in, 0, SEEK_SET) == 0 && fread(data, 1, (size_t)h.file_size, in) == h.file_size;
    if (ok) {
        memcpy(&c, data + h.config_offset, sizeof c);
        c.flags |= G4_CONFIG_CHAT;
        c.chat_template = (uint32_t)atoi(argv[3]);
        static const char *const stops[] = { "<eos>", "<turn|>", "<|tool_response>" };
        c.n_stop = 0;
        for (int i = 0; i < 3; i++) {
            g4_token id = g4_tokenizer_special(&t, stops[i], strlen(stops[i]));
            if (id >= 0) c.stop[c.n_stop++] = (uint32_t)id;
        }
        c.temperature = 0;
        memcpy(data + h.config_offset, &c, sizeof c);
        h.checksum = g4_checksum(data + 48, (size_t)(h.data_offset - 48));
        memcpy(data, &h, sizeof h);
        out = fopen(argv[2], "wb");
        ok = out != NULL && fwrite(data, 1, (size_t)h.file_size, out) == h.file_size;
        if (out != NULL) ok = fclose(out) == 0 && ok;
    }
    if (in != NULL) fclose(in);
    free(data);
    free(blob);
    if (!ok) fprintf(stderr, "usage: chat_model IN.g4 OUT.g4 TEMPLATE (1 to 3)\n");
    return !ok;
}
