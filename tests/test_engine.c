/* test_engine.c - the loader against damaged files, and the engine without memory.
 *
 * Every truncation, every flipped byte of header and tables (with the checksum left wrong and with it made right
 * again), every allocation that fails: one clear error each, never a crash, nothing leaked. Run under the sanitizers
 * by `make sanitize`. */
#define _GNU_SOURCE /* mkstemp */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gemma4.h"
#include "chat/chat.h"
#include "failing.h"
#include "test.h"

#define G4_MODEL "tests/data/text_e2b.g4"

typedef struct {
    unsigned char *data; /* 64-byte aligned */
    size_t size;
} g4_bytes;

static g4_bytes g4_read_file(const char *path)
{
    g4_bytes b = { NULL, 0 };
    FILE *f = fopen(path, "rb");
    if (!f) return b;
    fseek(f, 0, SEEK_END);
    b.size = (size_t)ftell(f);
    rewind(f);
    b.data = g4_alloc(NULL, b.size + 64, 1);
    if (b.data && fread(b.data, 1, b.size, f) != b.size) b.size = 0;
    fclose(f);
    return b;
}

static g4_file_header g4_header(const g4_bytes *b)
{
    g4_file_header h;
    memcpy(&h, b->data, sizeof h);
    return h;
}

/* Make size and checksum of the header right for bytes [0, size). */
static void g4_repair(unsigned char *data, size_t size)
{
    g4_file_header h;
    memcpy(&h, data, sizeof h);
    h.file_size = size;
    if (h.data_offset <= size && h.data_offset >= 48) h.checksum = g4_checksum(data + 48, (size_t)h.data_offset - 48);
    memcpy(data, &h, sizeof h);
}

static g4_status g4_open_bytes(g4_engine **e, const unsigned char *data, size_t size, g4_error *err)
{
    return g4_engine_open(e, &(g4_engine_options) { .model_data = data, .model_size = size, .n_threads = 1 }, err);
}

/* Opens, and if that works evaluates a little: whatever was accepted must be safe to use. */
static g4_status g4_try(const unsigned char *data, size_t size, g4_error *err)
{
    g4_engine *e;
    g4_status st = g4_open_bytes(&e, data, size, err);
    if (st) return st;
    g4_session *s;
    if (!g4_session_open(&s, e, &(g4_session_options) { .n_ctx = 8 }, NULL)) {
        const g4_token ids[3] = { 2, 7, 9 };
        if (!g4_session_eval(s, ids, 3, NULL))
            g4_session_generate(s, &(g4_generate_options) { .max_tokens = 2 }, NULL, NULL);
        g4_session_close(s);
    }
    g4_engine_close(e);
    return G4_OK;
}

static void g4_test_truncation(const g4_bytes *file)
{
    unsigned char *copy = g4_alloc(NULL, file->size + 64, 1);
    g4_error err;
    size_t opened = 0, unclear = 0;
    for (size_t n = 0; n < file->size; n++) {
        err.message[0] = 0;
        if (!g4_try(file->data, n, &err))
            opened++;
        else if (!err.message[0])
            unclear++;
    }
    G4_EXPECT(opened == 0 && unclear == 0, "%zu truncated files opened, %zu without a message", opened, unclear);
    /* the same with a header that agrees: now the tables themselves must notice */
    opened = unclear = 0;
    const size_t step = file->size > 100000 ? file->size / 5000 : 1;
    for (size_t n = 128; n < file->size; n += n < 4096 ? 1 : step) {
        memcpy(copy, file->data, n);
        g4_repair(copy, n);
        err.message[0] = 0;
        if (!g4_try(copy, n, &err))
            opened++;
        else if (!err.message[0])
            unclear++;
    }
    G4_EXPECT(opened == 0 && unclear == 0, "%zu shortened files opened, %zu without a message", opened, unclear);
    g4_free(NULL, copy);
}

static void g4_test_flips(const g4_bytes *file)
{
    const g4_file_header h = g4_header(file);
    size_t accepted = 0, unclear = 0;
    g4_error err;
    for (size_t at = 0; at < h.data_offset; at++) {
        /* the tokenizer is large: every 31st byte of it */
        const int in_tokenizer = at >= h.tokenizer_offset && at < h.tokenizer_offset + h.tokenizer_size;
        if (in_tokenizer && at % 31 != 0) continue;
        const unsigned char was = file->data[at];
        file->data[at] = (unsigned char)(was ^ (1u << (at % 8)));
        err.message[0] = 0;
        if (!g4_try(file->data, file->size, &err))
            accepted += at < 24 || at >= 40; /* bytes 24..39 are reserved and unchecked */
        else if (!err.message[0])
            unclear++;
        file->data[at] = was;
    }
    G4_EXPECT(accepted == 0 && unclear == 0, "%zu flipped files opened, %zu without a message", accepted, unclear);
    /* with the checksum made right: refused, or safe to use */
    unclear = 0;
    for (size_t at = 48; at < h.data_offset; at++) {
        const int in_tokenizer = at >= h.tokenizer_offset && at < h.tokenizer_offset + h.tokenizer_size;
        const int in_table = at >= h.table_offset && at < h.table_offset + h.n_tensors * sizeof(g4_tensor_entry);
        if ((in_tokenizer && at % 211 != 0) || (in_table && at % 5 != 0)) continue;
        const unsigned char was = file->data[at];
        file->data[at] = (unsigned char)(was ^ (1u << (at % 8)));
        g4_repair(file->data, file->size);
        err.message[0] = 0;
        if (g4_try(file->data, file->size, &err) && !err.message[0]) unclear++;
        file->data[at] = was;
        g4_repair(file->data, file->size);
    }
    G4_EXPECT(unclear == 0, "%zu flipped files refused without a message", unclear);
}

/* Patch 4 bytes of the header and expect that status and those words. */
static int g4_stop_at_once(void *user, uint64_t done, uint64_t total)
{
    uint64_t *seen = user;
    seen[0] = done;
    seen[1] = total;
    return 1;
}

/* Locked in memory, the same bytes; prefaulting counts what every token reads and can be stopped. */
static void g4_test_memory_advice(void)
{
    g4_error err = { G4_OK, "" };
    g4_engine *e = NULL;
    g4_engine_info info = { 0 };
    uint64_t resident = 0, total = 0, seen[2] = { 0, 0 };
    const g4_status st = g4_engine_open(&e, &(g4_engine_options) { .model_path = G4_MODEL, .lock_memory = 1 }, &err);
    G4_EXPECT(st == G4_OK || (st == G4_ERR_MEMORY && strstr(err.message, "ulimit")), "%s", err.message);
    if (st) return;
    g4_engine_get_info(e, &info);
    g4_engine_residence(e, &resident, &total);
    G4_EXPECT(total == info.decode_bytes && resident == total, "%d of %d bytes", (int)resident, (int)total);
    G4_EXPECT(g4_engine_prefault(e, NULL, NULL, &err) == G4_OK, "%s", err.message);
    G4_EXPECT(g4_engine_prefault(e, g4_stop_at_once, seen, &err) == G4_ERR_CANCELED, "%s", err.message);
    G4_EXPECT(seen[0] > 0 && seen[0] < seen[1] && seen[1] == total, "%d of %d", (int)seen[0], (int)seen[1]);
    G4_EXPECT(info.prompt_products > 0 && info.prompt_products < info.decode_products, "%d and %d multiply-adds",
              (int)info.prompt_products, (int)info.decode_products);
    g4_engine_close(e);
}

/* Kilobytes that this process has locked; -1 where the system does not say. */
static long g4_locked_kb(void)
{
    long kb = -1;
    char line[128];
    FILE *f = fopen("/proc/self/status", "r");
    if (!f) return kb;
    while (fgets(line, sizeof line, f))
        if (strncmp(line, "VmLck:", 6) == 0) kb = strtol(line + 6, NULL, 10);
    fclose(f);
    return kb;
}

/* The caller's bytes are locked as long as the engine is open, and no longer. */
static void g4_test_unlocked(const g4_bytes *file)
{
#ifdef __SANITIZE_ADDRESS__
    G4_SKIP("the address sanitizer locks nothing");
    if (file) return;
#endif
    g4_error err = { G4_OK, "" };
    g4_engine *e = NULL;
    const g4_engine_options options = { .model_data = file->data, .model_size = file->size, .lock_memory = 1 };
    const long before = g4_locked_kb();
    if (before < 0 || g4_engine_open(&e, &options, &err)) return;
    G4_EXPECT(g4_locked_kb() > before, "%ld KB locked", g4_locked_kb());
    g4_engine_close(e);
    G4_EXPECT(g4_locked_kb() == before, "%ld KB locked, %ld before", g4_locked_kb(), before);
}

static void g4_test_header_error(const g4_bytes *file, size_t at, uint32_t value, g4_status status, const char *words)
{
    unsigned char was[4];
    memcpy(was, file->data + at, 4);
    memcpy(file->data + at, &value, 4);
    g4_error err;
    g4_engine *e;
    const g4_status st = g4_open_bytes(&e, file->data, file->size, &err);
    G4_EXPECT(st == status && strstr(err.message, words), "%s: %s", g4_status_name(st), st ? err.message : "opened");
    memcpy(file->data + at, was, 4);
}

static void g4_test_path_error(const char *path, g4_status status, const char *words)
{
    g4_error err;
    g4_engine *e;
    const g4_status st = g4_engine_open(&e, &(g4_engine_options) { .model_path = path }, &err);
    G4_EXPECT(st == status && !e && strstr(err.message, words) && strstr(err.message, path), "%s: %s",
              g4_status_name(st), st ? err.message : "opened");
}

static void g4_test_paths(void)
{
    g4_test_path_error("tests/data/no_such_file.g4", G4_ERR_IO, "No such file");
    g4_test_path_error("tests", G4_ERR_FORMAT, "directory");
    g4_test_path_error("/dev/null", G4_ERR_FORMAT, "regular");
    char path[] = "/tmp/g4-test-XXXXXX";
    const int fd = mkstemp(path);
    G4_EXPECT(fd >= 0, "no temporary file");
    g4_test_path_error(path, G4_ERR_FORMAT, "empty");
    if (write(fd, "GGUF", 4) == 4 && ftruncate(fd, 4096) == 0) g4_test_path_error(path, G4_ERR_FORMAT, "export.py");
    close(fd);
    unlink(path);
}

typedef struct {
    unsigned char *data;
    size_t size, pos;
} g4_store;
static int g4_store_write(void *user, const void *data, size_t n)
{
    g4_store *st = user;
    unsigned char *grown = realloc(st->data, st->size + n);
    if (!grown) return 1;
    memcpy(grown + st->size, data, n);
    st->data = grown;
    st->size += n;
    return 0;
}
static int g4_store_read(void *user, void *data, size_t n)
{
    g4_store *st = user;
    if (n > st->size - st->pos) return 1;
    memcpy(data, st->data + st->pos, n);
    st->pos += n;
    return 0;
}

/* A whole life: open, evaluate in chunks, mark, fork, generate, go back, save, load. Returns the first failure. */
static g4_status g4_life(const g4_bytes *file, const g4_allocator *a, g4_error *err)
{
    g4_engine *e = NULL;
    g4_session *s = NULL, *fork = NULL, *loaded = NULL;
    g4_store store = { NULL, 0, 0 };
    g4_token ids[100];
    for (int i = 0; i < 100; i++) ids[i] = 5 + i % 90;
    const g4_session_options opt = { .n_ctx = 160, .chunk = 16 };
    g4_status st = g4_engine_open(
        &e, &(g4_engine_options) { .model_data = file->data, .model_size = file->size, .n_threads = 2, .allocator = a },
        err);
    if (!st) st = g4_session_open(&s, e, &opt, err);
    if (!st) st = g4_session_eval(s, ids, 90, err);
    if (!st) st = g4_session_mark(s, err);
    if (!st) st = g4_session_eval_text(s, "hello world", 0, err);
    if (!st) st = g4_session_fork(&fork, s, err);
    if (!st)
        st = g4_session_generate(fork, &(g4_generate_options) { .max_tokens = 3, .ignore_stop_ids = 1 }, NULL, err);
    if (!st) st = g4_session_rewind(s, 20, err);
    if (!st) st = g4_session_save(fork, g4_store_write, &store, err);
    if (!st) st = g4_session_load(&loaded, e, &opt, g4_store_read, &store, err);
    free(store.data);
    g4_session_close(loaded);
    g4_session_close(fork);
    g4_session_close(s);
    g4_engine_close(e);
    return st;
}

static void g4_test_allocation(const g4_bytes *file)
{
    long n = 0, wrong = 0, leaked = 0;
    for (;; n++) {
        g4_failing failing = { 0, n, 0 };
        const g4_allocator a = g4_failing_allocator(&failing);
        g4_error err = { G4_OK, "" };
        const g4_status st = g4_life(file, &a, &err);
        leaked += failing.live != 0;
        if (!st) break;
        wrong += st != G4_ERR_MEMORY || !err.message[0];
    }
    G4_EXPECT(n > 60 && wrong == 0 && leaked == 0, "%ld allocations: %ld wrong errors, %ld leaks", n, wrong, leaked);
}

/* After its session is open, evaluation allocates pages of keys and values and nothing else: none for a position whose
 * page is there, a page and its data for each owning layer where a page begins. */
static void g4_test_only_pages(const g4_bytes *file)
{
    g4_engine *e = NULL;
    g4_session *s = NULL;
    g4_failing counted = { 0, -1, 0 };
    const g4_allocator a = g4_failing_allocator(&counted);
    g4_error err = { G4_OK, "" };
    const g4_engine_options opt = {
        .model_data = file->data, .model_size = file->size, .n_threads = 2, .allocator = &a
    };
    g4_token id = 5;
    int ok = !g4_engine_open(&e, &opt, &err) && !g4_session_open(&s, e, NULL, &err);
    for (int pos = 0; ok && pos < 200; pos++) {
        const long before = counted.calls, pages = pos % 64 == 0 ? 2L * e->model.n_owners : 0;
        ok = !g4_session_eval(s, &id, 1, &err) && g4_session_logits(s) != NULL;
        G4_EXPECT(counted.calls - before == pages, "position %d: %ld allocations, not %ld", pos, counted.calls - before,
                  pages);
        id = (g4_token)(5 + pos % 90);
    }
    G4_EXPECT(ok, "%s", err.message);
    g4_session_close(s);
    g4_engine_close(e);
    G4_EXPECT(counted.live == 0, "%ld blocks are left", counted.live);
}

/* A failed or cancelled prompt leaves the session as it was; ids outside and prompts too long are refused. */
static int g4_cancel_at(void *user, uint64_t done, uint64_t total)
{
    (void)total;
    return done >= *(const uint64_t *)user;
}

static void g4_test_unchanged(const g4_bytes *file)
{
    g4_engine *e;
    g4_session *s;
    g4_error err;
    uint64_t cancel_at = UINT64_MAX;
    g4_token ids[120];
    for (int i = 0; i < 120; i++) ids[i] = 5 + i % 90;
    if (g4_open_bytes(&e, file->data, file->size, &err)) return;
    G4_EXPECT(!g4_session_open(
                  &s, e,
                  &(g4_session_options) { .n_ctx = 128, .chunk = 8, .progress = g4_cancel_at, .user = &cancel_at },
                  &err),
              "%s", err.message);
    G4_EXPECT(!g4_session_eval(s, ids, 50, &err), "%s", err.message);
    g4_engine_info info;
    g4_engine_get_info(e, &info);
    const size_t bytes = (size_t)info.n_vocab * sizeof(float);
    float *before = malloc(bytes), *after = malloc(bytes);
    memcpy(before, g4_session_logits(s), bytes);
    G4_EXPECT(g4_session_eval(s, ids, 79, &err) == G4_ERR_CONTEXT && strstr(err.message, "128"), "%s", err.message);
    const g4_token bad = info.n_vocab;
    G4_EXPECT(g4_session_eval(s, &bad, 1, &err) == G4_ERR_ARGUMENT, "%s", err.message);
    for (cancel_at = 8; cancel_at < 70; cancel_at += 8) {
        G4_EXPECT(g4_session_eval(s, ids, 70, &err) == G4_ERR_CANCELED, "%s", err.message);
        G4_EXPECT(g4_session_n(s) == 50 && !memcmp(g4_session_logits(s), before, bytes), "changed by cancelling at %d",
                  (int)cancel_at);
    }
    cancel_at = UINT64_MAX;
    G4_EXPECT(!g4_session_eval(s, ids, 70, &err), "%s", err.message);
    memcpy(after, g4_session_logits(s), bytes);
    g4_session *fresh;
    G4_EXPECT(!g4_session_open(&fresh, e, &(g4_session_options) { .n_ctx = 128 }, &err), "%s", err.message);
    G4_EXPECT(!g4_session_eval(fresh, ids, 50, &err) && !g4_session_eval(fresh, ids, 70, &err), "%s", err.message);
    G4_EXPECT(!memcmp(g4_session_logits(fresh), after, bytes), "not the bits of an undisturbed session");
    free(before);
    free(after);
    g4_session_close(fresh);
    g4_session_close(s);
    g4_engine_close(e);
}

static void g4_put_number(const char *folder, const char *file, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = fopen(path, "w");
    G4_EXPECT(f && fputs(text, f) >= 0, "%s", path);
    if (f) fclose(f);
}

/* Control groups in a folder of our own: limits of all groups around hold, cached files do not count as used. */
static void g4_test_control_groups(void)
{
    char root[] = "/tmp/g4-groups-XXXXXX", group[64], command[96];
    if (!mkdtemp(root)) return;
    snprintf(group, sizeof group, "%s/a", root);
    G4_EXPECT(mkdir(group, 0700) == 0, "%s", group);
    G4_EXPECT(g4_group_memory(root, "/a", 2, 5000) == 5000, "groups without limits");
    g4_put_number(group, "memory.max", "max\n");
    G4_EXPECT(g4_group_memory(root, "/a", 2, 5000) == 5000, "no limit");
    g4_put_number(root, "memory.max", "4000\n");
    g4_put_number(root, "memory.current", "1500\n");
    G4_EXPECT(g4_group_memory(root, "/a", 2, 5000) == 2500, "the limit around it");
    g4_put_number(root, "memory.stat", "anon 700\nactive_file 300\ninactive_file 500\n");
    G4_EXPECT(g4_group_memory(root, "/a", 2, 5000) == 3300, "cached files");
    g4_put_number(group, "memory.max", "100\n");
    g4_put_number(group, "memory.current", "200\n");
    G4_EXPECT(g4_group_memory(root, "/a", 2, 5000) == 1, "a limit that is used up");
    g4_put_number(group, "memory.limit_in_bytes", "3000\n");
    g4_put_number(group, "memory.usage_in_bytes", "1000\n");
    g4_put_number(group, "memory.stat", "total_active_file 10\ntotal_inactive_file 20\n");
    G4_EXPECT(g4_group_memory(root, "/a", 1, 5000) == 2030, "version 1");
    snprintf(command, sizeof command, "rm -r '%s'", root);
    G4_EXPECT(system(command) == 0, "%s", command);
}

static uint64_t g4_planned(const char *path, g4_kv_choice kv, uint64_t *shared)
{
    g4_engine *e = NULL;
    g4_memory_plan plan = { 0 };
    g4_engine_open(&e, &(g4_engine_options) { .model_path = path, .n_threads = 1 }, NULL);
    g4_session_plan(e, &(g4_session_options) { .kv = kv }, &plan);
    g4_engine_close(e);
    *shared = plan.shared;
    return plan.kv;
}

/* Keys and values are f16 by default, and f32 only where all weights are. */
static void g4_test_default_kv(void)
{
    uint64_t shared;
    const char *const bf16 = "tests/data/text_e2b.bf16.g4", *const f32 = "tests/data/text_e2b.g4";
    G4_EXPECT(g4_planned(bf16, G4_KV_DEFAULT, &shared) == g4_planned(bf16, G4_KV_USE_F16, &shared), "bf16");
    G4_EXPECT(g4_planned(f32, G4_KV_DEFAULT, &shared) == g4_planned(f32, G4_KV_USE_F32, &shared) && shared > 0, "f32");
}

int main(void)
{
    g4_bytes file = g4_read_file(G4_MODEL);
    G4_EXPECT(file.size > 0, "cannot read %s", G4_MODEL);
    if (file.size > 0) {
        g4_error err = { G4_OK, "" };
        G4_EXPECT(!g4_try(file.data, file.size, &err), "%s", err.message);
        g4_test_paths();
        g4_test_memory_advice();
        g4_test_control_groups();
        g4_test_default_kv();
        g4_test_unlocked(&file);
        g4_test_header_error(&file, 0, 0x20202020, G4_ERR_FORMAT, "magic");
        g4_test_header_error(&file, 8, 99, G4_ERR_VERSION, "version 99");
        g4_test_header_error(&file, 12, 0x04030201, G4_ERR_FORMAT, "endian");
        g4_test_unchanged(&file);
        g4_test_allocation(&file);
        g4_test_only_pages(&file);
        g4_test_truncation(&file);
        g4_test_flips(&file);
    }
    g4_free(NULL, file.data);
    return g4_test_end();
}
