/* test_strangers.c - model and session files that somebody else wrote: what a header may say, files that are none,
 * weights that are no numbers, counts near the end of int; and the corpora of the fuzzers of both, each input as it is
 * and with a byte changed. */
#define _GNU_SOURCE /* mkdtemp, mkstemp, memfd_create */
#define LLVMFuzzerTestOneInput g4_fuzz_model
#include "fuzz/fuzz_model.c"
#undef LLVMFuzzerTestOneInput
#define LLVMFuzzerTestOneInput g4_fuzz_session
#include "fuzz/fuzz_session.c"
#undef LLVMFuzzerTestOneInput

#include <limits.h>
#include <math.h>
#include <sys/stat.h>

#include "replay.h"
#include "test.h"

#define G4_SEES "tests/data/media/e2b-q8_0.g4"

/* ---- What a header says ------------------------------------------------------------------------------------------ */

typedef struct {
    const char *path;
    size_t offset; /* in the configuration, or behind it in the first layer */
    uint32_t value;
    const char *words;
} g4_bad_field;
#define G4_BAD(name, value)                                                                                            \
    {                                                                                                                  \
        G4_SEES, offsetof(g4_config, name), value, #name                                                               \
    }
#define G4_BITS_NAN 0x7fc00000u
#define G4_BITS_INF 0x7f800000u
#define G4_BITS_MINUS 0xbf800000u

static const g4_bad_field g4_bad_fields[] = {
    { G4_SEES, offsetof(g4_config, stop), 326, "stop id is 326, expected 0 to 325" },
    { G4_SEES, offsetof(g4_config, stop), 0xffffffffu, "stop id is 4294967295" },
    { G4_SEES, offsetof(g4_config, stop), 1u << 31, "stop id" },
    G4_BAD(n_stop, 8),
    G4_BAD(bos, 326),
    G4_BAD(eos, 1u << 31),
    G4_BAD(pad, 326),
    G4_BAD(unk, 326),
    G4_BAD(image_begin, 326),
    G4_BAD(image_token, 326),
    G4_BAD(image_end, 0xffffffffu),
    G4_BAD(audio_begin, 326),
    G4_BAD(audio_token, 326),
    G4_BAD(audio_end, 326),
    G4_BAD(video_token, 326),
    G4_BAD(flags, 16),
    G4_BAD(v_flags, 4),
    G4_BAD(chat_template, 4),
    { G4_SEES, offsetof(g4_config, n_layers), 513, "does not hold 513 layers" },
    G4_BAD(hidden, 0),
    G4_BAD(n_vocab, 0),
    G4_BAD(n_heads, 0),
    G4_BAD(window, 0),
    G4_BAD(max_ctx, 1u << 25),
    G4_BAD(ple_dim, 1025),
    G4_BAD(n_experts, 1025),
    { "tests/data/text_26b.q4_0.g4", offsetof(g4_config, n_experts_used), 8, "n_experts_used is 8, expected 1 to 7" },
    { "tests/data/text_26b.q4_0.g4", offsetof(g4_config, n_experts_used), 0, "n_experts_used" },
    G4_BAD(top_k, 1u << 31),
    G4_BAD(temperature, G4_BITS_NAN),
    G4_BAD(temperature, G4_BITS_MINUS),
    G4_BAD(top_p, 0x40000000u),
    G4_BAD(eps, 0),
    G4_BAD(eps, G4_BITS_NAN),
    G4_BAD(eps, G4_BITS_INF),
    G4_BAD(attn_scale, 0),
    G4_BAD(attn_scale, G4_BITS_MINUS),
    G4_BAD(softcap, G4_BITS_MINUS),
    G4_BAD(softcap, G4_BITS_INF),
    G4_BAD(embed_scale, 0),
    G4_BAD(v_eps, 0),
    G4_BAD(v_rope_theta, 0),
    G4_BAD(v_rope_theta, G4_BITS_NAN),
    G4_BAD(v_default_tokens, 281),
    G4_BAD(v_default_tokens, 0xffffffffu),
    G4_BAD(v_pool, 0),
    G4_BAD(v_pool, 5),
    G4_BAD(v_patch, 65),
    G4_BAD(v_n_pos, 0),
    G4_BAD(v_head_dim, 2),
    G4_BAD(a_heads, 0),
    G4_BAD(a_context, 65),
    G4_BAD(a_kernel, 0),
    G4_BAD(a_eps, 0),
    G4_BAD(a_residual_weight, G4_BITS_NAN),
    G4_BAD(a_logit_cap, 0),
    G4_BAD(a_clip, 0),
    G4_BAD(a_clip, G4_BITS_INF),
    { G4_SEES, sizeof(g4_config) + offsetof(g4_layer_config, flags), 16, "unknown flags 10" },
    { G4_SEES, sizeof(g4_config) + offsetof(g4_layer_config, n_kv_heads), 3, "kv heads" },
    { G4_SEES, sizeof(g4_config) + offsetof(g4_layer_config, head_dim), 1026, "kv heads" },
    { G4_SEES, sizeof(g4_config) + offsetof(g4_layer_config, mlp_dim), 0, "mlp" },
    { G4_SEES, sizeof(g4_config) + offsetof(g4_layer_config, kv_source), 1, "cannot read the keys" },
    { G4_SEES, sizeof(g4_config) + offsetof(g4_layer_config, kv_source), 0xffffffffu, "cannot read the keys" },
    { G4_SEES, sizeof(g4_config) + offsetof(g4_layer_config, flags), G4_LAYER_MOE, "no experts" },
};

static g4_status g4_open_base(g4_engine **e, const g4_base_model *b, g4_error *err)
{
    return g4_engine_open(e, &(g4_engine_options) { .model_data = b->data, .model_size = b->size, .n_threads = 1 },
                          err);
}

static void g4_test_fields(void)
{
    for (size_t i = 0; i < sizeof g4_bad_fields / sizeof *g4_bad_fields; i++) {
        const g4_bad_field *bad = &g4_bad_fields[i];
        g4_base_model b = { 0 };
        g4_engine *e = NULL;
        g4_error err = { G4_OK, "" };
        uint32_t sizes[2];
        b.data = g4_edit_read(bad->path, &b.size);
        memcpy(&b.header, b.data, sizeof b.header);
        memcpy(sizes, b.data + b.header.config_offset, sizeof sizes); /* the file may have a shorter configuration */
        const size_t behind = bad->offset >= sizeof(g4_config) ? bad->offset - sizeof(g4_config) + sizes[0] : 0;
        memcpy(b.data + b.header.config_offset + (behind ? behind : bad->offset), &bad->value, 4);
        g4_model_repair(&b);
        const g4_status status = g4_open_base(&e, &b, &err);
        G4_EXPECT(status == G4_ERR_FORMAT && strstr(err.message, bad->words), "%s = %u: %s", bad->words, bad->value,
                  status ? err.message : "opened");
        g4_engine_close(e);
        free(b.data);
    }
}

/* The models that are fuzzed open as they are, and all of them can be used. */
static void g4_test_small(void)
{
    for (int i = 0; i < G4_SMALL_SORTS; i++) {
        g4_engine *e = NULL;
        g4_error err = { G4_OK, "" };
        G4_EXPECT(g4_open_base(&e, g4_model_base(i), &err) == G4_OK, "sort %d: %s", i, err.message);
        if (e) g4_model_use(e, i % 2 ? 255 : 4);
        g4_engine_close(e);
    }
}

/* ---- Files that are none, and files that change ------------------------------------------------------------------ */

static void g4_expect_path(const char *path, int no_mmap, g4_status wanted, const char *words)
{
    g4_engine *e = NULL;
    g4_error err = { G4_OK, "" };
    const g4_status status =
        g4_engine_open(&e, &(g4_engine_options) { .model_path = path, .no_mmap = no_mmap, .n_threads = 1 }, &err);
    G4_EXPECT(status == wanted && strstr(err.message, words), "%s: %s: %s", path, g4_status_name(status), err.message);
    g4_engine_close(e);
}

/* A file of a terabyte of which 128 bytes are there: nobody reads the rest of it. */
static void g4_write_sparse(const char *path, uint64_t data_offset)
{
    const g4_base_model *b = g4_model_base(0);
    g4_file_header h = b->header;
    FILE *f = fopen(path, "wb");
    h.file_size = UINT64_C(1) << 40;
    h.data_offset = data_offset;
    G4_EXPECT(f && fwrite(&h, sizeof h, 1, f) == 1 && fflush(f) == 0 && ftruncate(fileno(f), (off_t)h.file_size) == 0,
              "cannot write %s", path);
    if (f) fclose(f);
}

static void g4_test_paths(const char *folder)
{
    char path[256];
    snprintf(path, sizeof path, "%s/pipe", folder);
    G4_EXPECT(mkfifo(path, 0600) == 0, "%s", path);
    alarm(20); /* a pipe without a writer must not be waited for */
    for (int no_mmap = 0; no_mmap < 2; no_mmap++) {
        g4_expect_path(path, no_mmap, G4_ERR_FORMAT, "not a regular file");
        g4_expect_path("/dev/zero", no_mmap, G4_ERR_FORMAT, "not a regular file");
    }
    snprintf(path, sizeof path, "%s/sparse", folder);
    for (int no_mmap = 0; no_mmap < 2; no_mmap++) {
        const double start = g4_seconds();
        g4_write_sparse(path, UINT64_C(1) << 40);
        g4_expect_path(path, no_mmap, G4_ERR_FORMAT, "offsets");
        g4_write_sparse(path, UINT64_C(1) << 28);
        if (!no_mmap) g4_expect_path(path, no_mmap, G4_ERR_FORMAT, "checksum"); /* else there may be no terabyte */
        G4_EXPECT(g4_seconds() - start < 10, "%.1f s for files of zeros", g4_seconds() - start);
    }
    alarm(0);
}

static void g4_copy_file(const char *from, const char *to)
{
    size_t size = 0;
    uint8_t *data = g4_edit_read(from, &size);
    FILE *f = fopen(to, "wb");
    G4_EXPECT(data && f && fwrite(data, 1, size, f) == size, "cannot copy %s to %s", from, to);
    if (f) fclose(f);
    free(data);
}

typedef struct {
    char path[256], other[256];
    int calls;
} g4_swap;

/* While the engine is opened, its path comes to name another file. */
static void *g4_swap_alloc(void *user, size_t size, size_t align)
{
    g4_swap *swap = user;
    if (swap->calls++ == 1) rename(swap->other, swap->path);
    return aligned_alloc(align, (size + align - 1) / align * align);
}
static void g4_swap_free(void *user, void *ptr, size_t size)
{
    (void)user;
    (void)size;
    free(ptr);
}

static uint64_t g4_answer_sum(const g4_engine_options *opt)
{
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_error err = { G4_OK, "" };
    const g4_token ids[] = { 2, 5, 7, 3, 9 };
    uint64_t sum = 0;
    G4_EXPECT(!g4_engine_open(&e, opt, &err) && !g4_session_open(&s, e, NULL, &err) &&
                  !g4_session_eval(s, ids, 5, &err),
              "%s", err.message);
    if (s && g4_session_logits(s)) sum = g4_checksum(g4_session_logits(s), 4 * e->file.config.n_vocab);
    g4_session_close(s);
    g4_engine_close(e);
    return sum;
}

static void g4_test_read(const char *folder)
{
    g4_swap swap = { .calls = 0 };
    const g4_allocator a = { g4_swap_alloc, g4_swap_free, &swap };
    snprintf(swap.path, sizeof swap.path, "%s/model.g4", folder);
    snprintf(swap.other, sizeof swap.other, "%s/other.g4", folder);
    const uint64_t mapped = g4_answer_sum(&(g4_engine_options) { .model_path = G4_SEES, .n_threads = 2 });
    for (int huge = 0; huge < 2; huge++)
        for (int no_mmap = 0; no_mmap < 2; no_mmap++) {
            g4_engine_options opt = { .model_path = swap.path, .no_mmap = no_mmap, .huge_pages = huge, .n_threads = 2 };
            g4_copy_file(G4_SEES, swap.path);
            G4_EXPECT(g4_answer_sum(&opt) == mapped, "no_mmap %d, huge_pages %d: other bits", no_mmap, huge);
            g4_copy_file("tests/data/text_gemma3.g4", swap.other);
            swap.calls = 0;
            opt.allocator = &a;
            G4_EXPECT(g4_answer_sum(&opt) == mapped, "no_mmap %d, huge_pages %d: not the file it opened", no_mmap,
                      huge);
        }
    g4_copy_file(G4_SEES, swap.path);
    g4_engine *e = NULL;
    g4_cancel cancel = { 0 };
    g4_cancel_set(&cancel);
    G4_EXPECT(g4_engine_open(
                  &e, &(g4_engine_options) { .model_path = swap.path, .no_mmap = 1, .limits = { .cancel = &cancel } },
                  NULL) == G4_ERR_CANCELED,
              "read though it was cancelled");
}

/* ---- Weights that are no numbers --------------------------------------------------------------------------------- */

static void g4_spoil(g4_base_model *b, uint16_t scale, uint32_t value, uint64_t which)
{
    const g4_tensor_entry *table = (const g4_tensor_entry *)(const void *)(b->data + b->header.table_offset);
    for (uint64_t i = 0; i < b->header.n_tensors; i++) {
        uint8_t *data = b->data + table[i].offset;
        if (i % 3 != which) continue; /* a part of them, and of their values, so that they meet numbers */
        for (uint64_t k = 0; k + 4 <= table[i].size; k += 28) {
            if (table[i].scale_type == G4_SCALE_NONE)
                memcpy(data + k, &value, 4);
            else
                memcpy(data + k, &scale, 2);
        }
    }
}

static void g4_test_no_numbers(void)
{
    static const uint32_t values[] = {
        G4_BITS_NAN, G4_BITS_NAN, G4_BITS_NAN, G4_BITS_INF, 0xff800000u, 0x7f7fffffu, 1
    };
    static const char *const paths[] = { G4_SEES, "tests/data/text_26b.q4_0.g4" };
    for (int model = 0; model < 2; model++)
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
            g4_base_model b = { 0 };
            g4_engine *e = NULL;
            g4_error err = { G4_OK, "" };
            b.data = g4_edit_read(paths[model], &b.size);
            memcpy(&b.header, b.data, sizeof b.header);
            g4_spoil(&b, 0x7bff, values[i], i % 3);
            for (int isa = 0; g4_isa_name(isa); isa++) {
                const g4_engine_options opt = {
                    .model_data = b.data, .model_size = b.size, .n_threads = 1, .isa = g4_isa_name(isa)
                };
                G4_EXPECT(!g4_engine_open(&e, &opt, &err), "%s", err.message);
                for (int how = 0; e && how < 16; how++) g4_model_use(e, how);
                if (e && isa < 2) g4_model_media(e, model == 0);
                g4_engine_close(e);
            }
            free(b.data);
        }
}

/* An answer of nothing but NaN has no token, and says so. */
static void g4_test_no_token(void)
{
    g4_base_model b = { 0 };
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_error err = { G4_OK, "" };
    const g4_token ids[] = { 2, 5 };
    const uint32_t nan = G4_BITS_NAN;
    b.data = g4_edit_read("tests/data/text_e2b.g4", &b.size);
    memcpy(&b.header, b.data, sizeof b.header);
    const g4_tensor_entry *t = (const g4_tensor_entry *)(const void *)(b.data + b.header.table_offset);
    while (strcmp(t->name, "norm") != 0) t++;
    for (uint64_t k = 0; k < t->size; k += 4) memcpy(b.data + t->offset + k, &nan, 4);
    G4_EXPECT(!g4_open_base(&e, &b, &err) && !g4_session_open(&s, e, NULL, &err) && !g4_session_eval(s, ids, 2, &err),
              "%s", err.message);
    for (int hot = 0; hot < 2; hot++) {
        const g4_sampling sampling = { .temperature = (float)hot };
        const g4_status status =
            g4_session_generate(s, &(g4_generate_options) { .sampling = &sampling, .max_tokens = 2 }, NULL, &err);
        G4_EXPECT(status == G4_ERR_FORMAT && strstr(err.message, "no numbers"), "%s", err.message);
    }
    G4_EXPECT(g4_session_n(s) == 2, "%d tokens", g4_session_n(s));
    g4_session_close(s);
    g4_engine_close(e);
    free(b.data);
}

/* ---- Counts ------------------------------------------------------------------------------------------------------ */

static int g4_ignore_row(void *user, int index, const float *logits)
{
    (void)user;
    (void)index;
    (void)logits;
    return 0;
}

/* Counts and places near the ends of int: refused, and the session is as it was. */
static void g4_test_counts(void)
{
    static const int counts[] = { INT_MAX, INT_MAX - 1, INT_MAX - 63, INT_MAX / 2, -1, INT_MIN };
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_soft *soft = NULL;
    static uint8_t pixels[72];
    const g4_image image = { .pixels = pixels, .width = 6, .height = 4, .max_tokens = 70 };
    const g4_token ids[] = { 2, 5, 7 };
    G4_EXPECT(!g4_engine_open(&e, &(g4_engine_options) { .model_path = G4_SEES, .n_threads = 1 }, NULL) &&
                  !g4_session_open(&s, e, NULL, NULL) && !g4_session_eval(s, ids, 3, NULL) &&
                  !g4_image_encode(&soft, e, &image, NULL),
              "cannot open %s", G4_SEES);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        const int n = counts[i];
        const g4_medium at = { n, soft }, two[] = { { 0, soft }, { n, soft } };
        const g4_prompt prompts[] = { { .tokens = ids, .n = n },
                                      { .tokens = ids, .n = 3, .media = &at, .n_media = 1 },
                                      { .tokens = ids, .n = 3, .media = two, .n_media = n < 0 ? n : 2 },
                                      { .tokens = ids, .n = n, .media = &at, .n_media = 1 } };
        for (size_t k = 0; k < sizeof prompts / sizeof *prompts; k++) {
            G4_EXPECT(g4_session_eval_prompt(s, &prompts[k], NULL) != G4_OK, "prompt %d of %d", (int)k, n);
            G4_EXPECT(g4_session_eval_all(s, &prompts[k], g4_ignore_row, NULL, NULL) != G4_OK, "all %d of %d", (int)k,
                      n);
            G4_EXPECT(g4_session_sync(s, &prompts[k], NULL, NULL) != G4_OK, "sync %d of %d", (int)k, n);
        }
        G4_EXPECT(g4_session_eval(s, ids, n, NULL) != G4_OK, "eval %d", n);
        G4_EXPECT(g4_session_rewind(s, n, NULL) != G4_OK, "rewind %d", n);
        g4_session *made = NULL;
        G4_EXPECT(g4_session_open(&made, e, &(g4_session_options) { .n_ctx = n }, NULL) != G4_OK, "context %d", n);
        g4_token token;
        G4_EXPECT(g4_session_choose(s, &(g4_choose_options) { .reply_start = n }, &token, NULL) != G4_OK, "choose %d",
                  n);
        G4_EXPECT(g4_session_generate(s, &(g4_generate_options) { .n_top = n }, NULL, NULL) != G4_OK, "top %d", n);
        G4_EXPECT(g4_session_n(s) == 3, "%d tokens", g4_session_n(s));
    }
    g4_soft_close(e, soft);
    g4_session_close(s);
    g4_engine_close(e);
}

/* ---- Saved sessions ---------------------------------------------------------------------------------------------- */

static void g4_test_rewound(void)
{
    g4_engine *e = NULL;
    g4_token ids[120];
    for (int i = 0; i < 120; i++) ids[i] = 5 + i % 90;
    G4_EXPECT(!g4_engine_open(&e, &(g4_engine_options) { .model_path = G4_SEES, .n_threads = 1 }, NULL), "no engine");
    for (int kv = 1; kv < 4; kv++)
        for (int n = 60; n <= 70; n++) {
            g4_edit_store stores[2] = { { 0 }, { 0 } };
            for (int more = 0; more < 2; more++) { /* the second one had other tokens behind them */
                g4_session *s = NULL;
                const g4_session_options opt = { .n_ctx = 128, .kv = (g4_kv_choice)kv };
                G4_EXPECT(!g4_session_open(&s, e, &opt, NULL) && !g4_session_eval(s, ids, n, NULL), "no session");
                if (more) {
                    G4_EXPECT(!g4_session_eval(s, ids, 8, NULL) && !g4_session_rewind(s, n, NULL), "not back");
                }
                G4_EXPECT(!g4_session_save(s, g4_edit_write, &stores[more], NULL), "not saved");
                g4_session_close(s);
            }
            G4_EXPECT(stores[0].size == stores[1].size && memcmp(stores[0].data, stores[1].data, stores[0].size) == 0,
                      "kv %d, %d tokens: a saved session holds more than its tokens", kv, n);
            free(stores[0].data);
            free(stores[1].data);
        }
    g4_engine_close(e);
}

/* Every byte of a saved session that is changed, and every end before its end, is refused with a reason. */
static void g4_test_damage(void)
{
    const g4_edit_store *saved = &g4_saved_states[G4_KV_USE_Q8_0];
    const g4_session_options opt = { .n_ctx = 128, .kv = G4_KV_USE_Q8_0 };
    size_t loaded = 0, unclear = 0;
    for (size_t i = 0; i < saved->size; i += i < 2000 ? 1 : 97) {
        for (int cut = 0; cut < 2; cut++) {
            g4_edit_store copy = { saved->data, cut ? i : saved->size, saved->cap, 0 };
            g4_session *s = NULL;
            g4_error err = { G4_OK, "" };
            if (!cut) saved->data[i] ^= (uint8_t)(1u << i % 8);
            loaded += g4_session_load(&s, g4_saved_engine, &opt, g4_edit_take, &copy, &err) == G4_OK;
            unclear += err.message[0] == 0;
            g4_session_close(s);
            if (!cut) saved->data[i] ^= (uint8_t)(1u << i % 8);
        }
    }
    G4_EXPECT(loaded == 0 && unclear == 0, "%d damaged sessions loaded, %d without a reason", (int)loaded,
              (int)unclear);
}

int main(void)
{
    char folder[] = "/tmp/g4-strangers-XXXXXX", command[64];
    G4_EXPECT(mkdtemp(folder) != NULL, "no folder");
    g4_test_fields();
    g4_test_small();
    g4_test_paths(folder);
    g4_test_read(folder);
    g4_test_no_numbers();
    g4_test_no_token();
    g4_test_counts();
    g4_test_rewound();
    const int n_models = g4_replay("tests/fuzz/corpus_model", g4_fuzz_model, 1);
    const int n_sessions = g4_replay("tests/fuzz/corpus_session", g4_fuzz_session, 1);
    G4_EXPECT(n_models > 20, "%d models in the corpus", n_models);
    G4_EXPECT(n_sessions > 20, "%d sessions in the corpus", n_sessions);
    g4_test_damage();
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    G4_EXPECT(system(command) == 0, "%s", command);
    return g4_test_end();
}
