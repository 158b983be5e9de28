/* libFuzzer entry for model files, replayed by tests/test_strangers.c. Run from the repository root.
 *
 * Byte 0 of the input: which of the models of small_model.h; byte 1: what is done with one that opens. Then edits
 * (edits.h): bits 0-2 of `where` say what is changed (configuration, table of tensors, tokenizer, header, weights),
 * bits 3-4 how, the rest the place. Sizes and checksum are made right afterwards. What opens must be safe to use: a
 * prompt, an answer, a session saved and loaded again, a picture, a sound. */
#include "edits.h"
#include "small_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    uint8_t *data;
    size_t size;
    g4_file_header header;
} g4_base_model;

static g4_base_model *g4_model_base(int i)
{
    static g4_base_model bases[G4_SMALL_SORTS];
    g4_base_model *b = &bases[i % G4_SMALL_SORTS];
    if (b->data == NULL) {
        b->data = g4_small_model(i % G4_SMALL_SORTS, &b->size);
        memcpy(&b->header, b->data, sizeof b->header);
    }
    return b;
}

/* The place of an edit: of 4 bytes in the file. */
static size_t g4_model_place(const g4_base_model *b, uint32_t where)
{
    const g4_file_header *h = &b->header;
    const uint32_t place = where >> 5;
    const g4_tensor_entry *table = (const g4_tensor_entry *)(const void *)(b->data + h->table_offset);
    switch (where & 7) {
    case 0:
    case 1: return (size_t)(h->config_offset + 4 * (place % (h->config_size / 4)));
    case 2: /* numbers of an entry, which stand behind its name */
        return (size_t)(h->table_offset + place % h->n_tensors * sizeof *table + 64 +
                        4 * (place / h->n_tensors % ((sizeof *table - 64) / 4)));
    case 3: return (size_t)(h->table_offset + 4 * (place % (h->n_tensors * sizeof *table / 4)));
    case 4: return (size_t)(h->tokenizer_offset + 4 * (place % 50));
    case 5: return (size_t)(h->tokenizer_offset + 4 * (place % (h->tokenizer_size / 4)));
    case 6: return 4 * (place % (sizeof *h / 4));
    default: return (size_t)(h->data_offset + 4 * (place % ((b->size - h->data_offset) / 4)));
    }
}

static void g4_model_repair(g4_base_model *b)
{
    g4_file_header h;
    memcpy(&h, b->data, sizeof h);
    h.file_size = b->size;
    if (h.data_offset >= 48 && h.data_offset <= b->size)
        h.checksum = g4_checksum(b->data + 48, (size_t)h.data_offset - 48);
    memcpy(b->data, &h, sizeof h);
}

static void g4_model_save_and_load(g4_engine *e, const g4_session *s, const g4_session_options *opt)
{
    g4_edit_store store = { 0 };
    g4_session *again = NULL;
    g4_error err;
    if (g4_session_save(s, g4_edit_write, &store, &err) == G4_OK) {
        g4_edit_check(store.size == g4_session_saved_bytes(s));
        const g4_status status = g4_session_load(&again, e, opt, g4_edit_take, &store, &err);
        g4_edit_check(status == G4_OK || status == G4_ERR_CANCELED || status == G4_ERR_MEMORY);
        if (again) g4_edit_check(g4_session_n(again) == g4_session_n(s));
    }
    g4_session_close(again);
    free(store.data);
}

static void g4_model_media(g4_engine *e, int with_picture)
{
    static const uint8_t pixels[6 * 4 * 3];
    static const float samples[900];
    g4_soft *soft;
    if (with_picture &&
        g4_image_encode(&soft, e, &(g4_image) { .pixels = pixels, .width = 6, .height = 4, .max_tokens = 70 }, NULL) ==
            G4_OK)
        g4_soft_close(e, soft);
    if (g4_audio_encode(&soft, e, &(g4_audio) { .samples = samples, .n_samples = 900 }, NULL) == G4_OK)
        g4_soft_close(e, soft);
}

/* Whatever was accepted must be safe to use. */
static void g4_model_use(g4_engine *e, int how)
{
    const g4_token ids[] = { 2, 5, 7, 3 };
    const g4_session_options opt = { .n_ctx = 70, .kv = (g4_kv_choice)(how % 4), .limits = { .seconds = 2 } };
    const g4_sampling hot = { .temperature = 1, .top_k = how & 8 ? 0 : 5, .top_p = 0.9f };
    const g4_generate_options generate = { .max_tokens = 3, .sampling = how & 4 ? &hot : NULL };
    g4_session *s = NULL;
    for (int i = 0; i < 3; i++) {
        char piece[256];
        g4_token_bytes(e, ids[i], 0, piece);
        g4_token_is_stop(e, ids[i]);
    }
    if (g4_session_open(&s, e, &opt, NULL) == G4_OK && g4_session_eval(s, ids, 4, NULL) == G4_OK) {
        g4_session_generate(s, &generate, NULL, NULL);
        g4_session_eval_text(s, "ab <c>", 0, NULL);
        g4_session_rewind(s, 3, NULL);
        g4_model_save_and_load(e, s, &opt);
    }
    g4_session_close(s);
    if (how & 16) g4_model_media(e, how >= 192); /* a picture takes as long as all else together */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    g4_base_model *b = g4_model_base(data[0]);
    size_t place[G4_MAX_EDITS];
    uint32_t old[G4_MAX_EDITS];
    int n = 0;
    for (size_t i = 2; i + G4_EDIT_BYTES <= size && n < G4_MAX_EDITS; i += G4_EDIT_BYTES, n++) {
        const uint32_t where = g4_edit_number(data + i);
        place[n] = g4_model_place(b, where);
        memcpy(&old[n], b->data + place[n], 4);
        const uint32_t changed = g4_edit_value(old[n], where >> 3, g4_edit_number(data + i + 4));
        memcpy(b->data + place[n], &changed, 4);
    }
    g4_model_repair(b);
    g4_engine *e = NULL;
    g4_error err = { G4_OK, "" };
    const g4_engine_options opt = {
        .model_data = b->data, .model_size = b->size, .n_threads = 1, .limits = { .seconds = 2 }
    };
    if (g4_engine_open(&e, &opt, &err) == G4_OK)
        g4_model_use(e, data[1]);
    else
        g4_edit_check(err.message[0] != 0);
    g4_engine_close(e);
    while (n-- > 0) memcpy(b->data + place[n], &old[n], 4);
    memcpy(b->data, &b->header, sizeof b->header);
    return 0;
}
