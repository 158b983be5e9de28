/* libFuzzer entry for saved sessions, replayed by tests/test_strangers.c. Run from the repository root.
 *
 * Byte 0 of the input: bit 0: the bytes behind byte 0 are the file, else edits (edits.h) of a good one, whose checksum
 * is made right: bits 0-1 of `where` how, the rest the place; bit 1: the file of the program (cli/saved.c), else what
 * g4_session_save writes; bits 2-3 the type of keys and values. What is loaded must be safe to go on with, and what is
 * saved of it must load again. */
#include "edits.h"
#include "small_model.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/cli.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static g4_engine *g4_saved_engine;
static g4_edit_store g4_saved_states[4], g4_saved_files[4];
static arguments g4_saved_arguments;

/* A picture and a sound among tokens. */
static g4_session *g4_saved_make(int kv)
{
    static uint8_t pixels[6 * 4 * 3];
    static float samples[900];
    g4_soft *soft[2];
    g4_token ids[200];
    g4_medium media[2];
    g4_session *s;
    int n = 0;
    g4_engine *e = g4_saved_engine;
    g4_edit_check(g4_image_encode(&soft[0], e,
                                  &(g4_image) { .pixels = pixels, .width = 6, .height = 4, .max_tokens = 70 },
                                  NULL) == G4_OK &&
                  g4_audio_encode(&soft[1], e, &(g4_audio) { .samples = samples, .n_samples = 900 }, NULL) == G4_OK);
    for (int i = 0; i < 2; i++) {
        ids[n++] = 5;
        media[i] = (g4_medium) { n, soft[i] };
        for (int k = 0; k < g4_soft_n(soft[i]); k++) ids[n++] = g4_soft_token(soft[i]);
    }
    ids[n++] = 7;
    g4_edit_check(
        g4_session_open(&s, e, &(g4_session_options) { .n_ctx = 128, .kv = (g4_kv_choice)kv }, NULL) == G4_OK &&
        g4_session_eval_prompt(s, &(g4_prompt) { .tokens = ids, .n = n, .media = media, .n_media = 2 }, NULL) == G4_OK);
    for (int i = 0; i < 2; i++) g4_soft_close(e, soft[i]);
    return s;
}

/* A file of the program: its messages, then the state. */
static void g4_saved_file(conversation *c, g4_edit_store *out)
{
    char path[] = "/tmp/g4-saved-XXXXXX";
    const int fd = mkstemp(path);
    size_t size = 0;
    g4_edit_check(fd >= 0 && conversation_save(c, path) == DONE);
    out->data = g4_edit_read(path, &size);
    out->size = out->cap = size;
    g4_edit_check(out->data != NULL && size > 0);
    close(fd);
    unlink(path);
}

static message_part g4_saved_part(g4_part_kind kind, const char *text)
{
    message_part p = { .kind = kind };
    buffer_str(&p.text, text);
    return p;
}

static void g4_saved_open(void)
{
    static uint8_t pixels[2 * 3 * 3];
    static float samples[5] = { 0, 0.5f, -1, 1, 0.25f };
    static const double seconds[2] = { 0, 1.5 };
    static g4_image frames[2] = { { .pixels = pixels, .width = 2, .height = 3 },
                                  { .pixels = pixels, .width = 3, .height = 1 } };
    static g4_audio sound = { .samples = samples, .n_samples = 5 };
    stderr = fopen("/dev/null", "w"); /* each refusal is a line */
    size_t size;
    const int sort = G4_SMALL_TOWERS | G4_SMALL_PER_LAYER | G4_TYPE_Q8_0 << G4_SMALL_TYPE_SHIFT;
    const uint8_t *model = g4_small_model(sort, &size);
    const g4_engine_options opt = { .model_data = model, .model_size = size, .n_threads = 1 };
    g4_edit_check(stderr != NULL && g4_engine_open(&g4_saved_engine, &opt, NULL) == G4_OK);
    g4_saved_arguments = (arguments) { .quiet = 1, .n_ctx = 128 };
    message_part parts[] = { g4_saved_part(G4_PART_TEXT, "a text"), g4_saved_part(G4_PART_IMAGE, "a.png"),
                             g4_saved_part(G4_PART_AUDIO, "b.wav"), g4_saved_part(G4_PART_VIDEO, "c.y4m"),
                             g4_saved_part(G4_PART_TOOL_CALL, "{}") };
    parts[1].medium = (medium) { .kind = G4_PART_IMAGE, .image = frames[0] };
    parts[2].medium = (medium) { .kind = G4_PART_AUDIO, .audio = sound };
    parts[3].medium = (medium) { .kind = G4_PART_VIDEO,
                                 .video = { .frames = frames, .seconds = seconds, .n_frames = 2, .sound = &sound } };
    message messages[] = { { G4_ROLE_USER, parts, 4 }, { G4_ROLE_MODEL, parts + 4, 1 } };
    for (int kv = 0; kv < 4; kv++) {
        conversation c = { .args = &g4_saved_arguments, .engine = g4_saved_engine, .messages = messages, .n = 2 };
        c.session = g4_saved_make(kv);
        g4_edit_check(g4_session_save(c.session, g4_edit_write, &g4_saved_states[kv], NULL) == G4_OK);
        g4_saved_file(&c, &g4_saved_files[kv]);
        g4_session_close(c.session);
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) buffer_free(&parts[i].text);
}

/* ---- What is loaded ---------------------------------------------------------------------------------------------- */

static void g4_saved_use(g4_session *s)
{
    const g4_token ids[] = { 9, 8 };
    const g4_session_options opt = { .n_ctx = 128, .kv = g4_saved_arguments.kv };
    const int n = g4_session_n(s);
    g4_edit_store store = { 0 };
    g4_session *again = NULL;
    g4_edit_check(g4_session_save(s, g4_edit_write, &store, NULL) == G4_OK);
    g4_edit_check(g4_session_load(&again, g4_saved_engine, &opt, g4_edit_take, &store, NULL) == G4_OK);
    g4_edit_check(g4_session_n(again) == n &&
                  memcmp(g4_session_tokens(again), g4_session_tokens(s), (size_t)n * sizeof(g4_token)) == 0);
    g4_session_close(again);
    free(store.data);
    g4_session_eval(s, ids, 2, NULL);
    if (g4_session_n(s) > 0) g4_session_generate(s, &(g4_generate_options) { .max_tokens = 1 }, NULL, NULL);
    g4_session_rewind(s, n / 2, NULL);
}

typedef struct {
    g4_edit_store bytes;
    uint64_t sum;
    int n_pairs; /* 8 bytes were asked for so many times: ranges of pages, then the checksum */
} g4_saved_reader;

/* Gives what g4_state_get asks for, and at the end the checksum of what it was given. */
static int g4_saved_read(void *user, void *data, size_t n)
{
    g4_saved_reader *r = (g4_saved_reader *)user;
    r->n_pairs += n == 8;
    if (n == 8 && r->n_pairs > g4_saved_engine->model.n_owners) {
        memcpy(data, &r->sum, 8);
        return 0;
    }
    if (g4_edit_take(&r->bytes, data, n)) return 1;
    r->sum = g4_checksum_step(r->sum, g4_checksum(data, n));
    return 0;
}

static void g4_saved_load_state(const g4_edit_store *bytes, int repaired)
{
    g4_saved_reader r = { .bytes = *bytes };
    g4_session *s = NULL;
    g4_error err = { G4_OK, "" };
    const g4_session_options opt = { .n_ctx = 128, .kv = g4_saved_arguments.kv };
    const g4_status status = repaired ? g4_session_load(&s, g4_saved_engine, &opt, g4_saved_read, &r, &err)
                                      : g4_session_load(&s, g4_saved_engine, &opt, g4_edit_take, &r.bytes, &err);
    g4_edit_check(status == G4_OK ? s != NULL : s == NULL && err.message[0] != 0);
    if (s) g4_saved_use(s);
    g4_session_close(s);
}

/* Behind the messages stands their checksum, as cli/saved.c has it. */
static void g4_saved_repair_file(uint8_t *data, size_t size)
{
    uint64_t len, sum = UINT64_C(0xcbf29ce484222325);
    memcpy(&len, data + 8, 8);
    if (len > size || size - len < 24) return;
    for (size_t i = 16; i < 16 + len; i++) sum = (sum ^ data[i]) * UINT64_C(0x100000001b3);
    memcpy(data + 16 + len, &sum, 8);
}

static void g4_saved_load_file(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[64];
    conversation c = { .args = &g4_saved_arguments, .engine = g4_saved_engine };
    if (fd < 0) {
        fd = memfd_create("saved", 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    g4_edit_check(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    if (conversation_open(&c, path) == DONE) g4_saved_use(c.session);
    messages_free(&c);
    g4_session_close(c.session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    if (g4_saved_engine == NULL) g4_saved_open();
    const int is_raw = data[0] & 1, is_file = data[0] >> 1 & 1, kv = data[0] >> 2 & 3;
    const g4_edit_store *base = is_file ? &g4_saved_files[kv] : &g4_saved_states[kv];
    g4_saved_arguments.kv = (g4_kv_choice)kv;
    g4_edit_store bytes = { 0 };
    if (is_raw) {
        g4_edit_write(&bytes, data + 1, size - 1);
    } else {
        const size_t cut = data[1] == 255 && size >= 6 ? g4_edit_number(data + 2) % (base->size + 1) : base->size;
        g4_edit_write(&bytes, base->data, base->size);
        for (size_t i = 2; i + G4_EDIT_BYTES <= size && i < G4_MAX_EDITS * G4_EDIT_BYTES; i += G4_EDIT_BYTES) {
            const uint32_t where = g4_edit_number(data + i);
            const size_t place = (data[1] & 1 ? where >> 2 : 4 * (where >> 2 & 0x1ff)) % (base->size - 3);
            uint32_t old;
            memcpy(&old, bytes.data + place, 4);
            const uint32_t changed = g4_edit_value(old, where, g4_edit_number(data + i + 4));
            memcpy(bytes.data + place, &changed, 4);
        }
        bytes.size = cut;
        if (is_file && cut == base->size) g4_saved_repair_file(bytes.data, bytes.size);
    }
    if (is_file)
        g4_saved_load_file(bytes.data, bytes.size);
    else
        g4_saved_load_state(&bytes, !is_raw);
    free(bytes.data);
    return 0;
}
