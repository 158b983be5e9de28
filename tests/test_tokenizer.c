/* Tokenizer: golden ids of three vocabularies, decoding, streaming, a literal reference, time, damaged vocabularies,
 * memory. */
#define _DEFAULT_SOURCE 1 /* clock_gettime under -std=c11 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "failing.h"
#include "fuzz/fuzz_tokenizer.c"
#include "replay.h"
#include "test.h"

#define SHARED "../shared/gemma4-tokenizer/examples/"

typedef struct {
    const char *name;
    uint8_t *blob;
    size_t size;
    uint32_t n_vocab;
    g4_tokenizer t;
} g4_vocab;

static uint64_t g4_random_state = 1;
static uint32_t g4_random(uint32_t n) /* 0 .. n - 1 */
{
    uint64_t x = g4_random_state += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return (uint32_t)(((x ^ x >> 31) >> 32) * n >> 32);
}

static int g4_open_vocab(g4_vocab *v, const char *path)
{
    g4_error err = { 0 };
    memset(v, 0, sizeof *v);
    v->name = path;
    v->blob = g4_read_blob(path, &v->size, &v->n_vocab);
    const int ok = v->blob != NULL && g4_tokenizer_bind(&v->t, v->blob, v->size, v->n_vocab, &err) == G4_OK;
    G4_EXPECT(ok, "%s: %s", path, err.message);
    return ok;
}

static uint8_t *g4_read_all(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    if (f == NULL) return NULL;
    fseek(f, 0, SEEK_END);
    const long n = ftell(f);
    uint8_t *data = n >= 0 ? malloc((size_t)n + 1) : NULL;
    rewind(f);
    if (data != NULL && fread(data, 1, (size_t)n, f) == (size_t)n) {
        *size = (size_t)n;
        data[n] = 0;
    } else {
        free(data);
        data = NULL;
    }
    fclose(f);
    return data;
}

static g4_tokens g4_encode(const g4_tokenizer *t, const void *text, size_t len, int specials)
{
    g4_tokens ids = { 0 };
    g4_error err;
    if (g4_tokenizer_encode(t, NULL, text, len, specials, &ids, NULL, &err) != G4_OK)
        printf("encode: %s\n", err.message);
    return ids;
}

/* Bytes of all ids; free the buffer. */
static g4_buf g4_decode(const g4_tokenizer *t, const g4_token *ids, size_t n, int skip_special)
{
    g4_buf b = { 0 };
    for (size_t i = 0; i < n; i++) {
        char piece[256];
        int special;
        const size_t k = g4_tokenizer_piece(t, ids[i], piece, &special);
        if (!(special && skip_special)) g4_buf_add(&b, piece, k);
    }
    return b;
}

/* ---- Golden ids ------------------------------------------------------------------------------ */

static uint32_t g4_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

typedef void (*g4_case_fn)(const g4_vocab *v, int specials, const uint8_t *text, size_t len, const uint32_t *ids,
                           size_t n);

/* Call fn for every case of a golden file (the format: make_tokenizer_data.py). */
static void g4_each_case(const g4_vocab *v, const char *path, g4_case_fn fn)
{
    size_t size = 0, p = 4;
    uint8_t *data = g4_read_all(path, &size);
    G4_EXPECT(data != NULL && size > 4, "%s", path);
    if (data == NULL) return;
    const uint32_t n_cases = g4_u32(data);
    for (uint32_t i = 0; i < n_cases && p + 12 <= size; i++) {
        const uint32_t specials = g4_u32(data + p), len = g4_u32(data + p + 4), n = g4_u32(data + p + 8);
        const uint8_t *text = data + p + 12, *ids = text + (len + 3) / 4 * 4;
        p += 12 + (len + 3) / 4 * 4 + 4 * (size_t)n;
        if (p > size) break;
        fn(v, (int)specials, text, len, (const uint32_t *)(const void *)ids, n);
    }
    G4_EXPECT(p == size, "%s ends at %zu of %zu", path, p, size);
    free(data);
}

static void g4_check_golden(const g4_vocab *v, int specials, const uint8_t *text, size_t len, const uint32_t *want,
                            size_t n)
{
    g4_tokens ids = g4_encode(&v->t, text, len, specials);
    size_t same = 0;
    while (same < ids.n && same < n && (uint32_t)ids.ids[same] == want[same]) same++;
    G4_EXPECT(ids.n == n && same == n, "%s: %.*s (specials %d): id %zu of %zu and %zu differs", v->name, (int)len,
              (const char *)text, specials, same, ids.n, n);
    g4_free(NULL, ids.ids);
}

/* ---- A literal reference --------------------------------------------------------------------- */

static int g4_order(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

typedef struct { /* left << 44 | right << 24 | rank, sorted: no hash, no cuts */
    uint64_t *merges;
    size_t n;
    const uint32_t *joined;
} g4_slow;

static g4_slow g4_slow_open(const g4_vocab *v)
{
    const uint32_t slots = g4_u32(v->blob + 28), merges_at = g4_u32(v->blob + 64 + 8 * 7),
                   joined_at = g4_u32(v->blob + 64 + 8 * 8);
    g4_slow s = { malloc(8 * (size_t)slots), 0, (const uint32_t *)(const void *)(v->blob + joined_at) };
    for (uint32_t i = 0; i < slots; i++) {
        memcpy(&s.merges[s.n], v->blob + merges_at + 8 * (size_t)i, 8);
        if (s.merges[s.n] != UINT64_MAX) s.n++;
    }
    qsort(s.merges, s.n, 8, g4_order);
    return s;
}

static uint32_t g4_slow_rank(const g4_slow *s, uint32_t l, uint32_t r)
{
    const uint64_t key = (uint64_t)l << 20 | r;
    size_t lo = 0, hi = s->n;
    while (lo < hi) {
        const size_t mid = (lo + hi) / 2;
        if (s->merges[mid] >> 24 < key)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < s->n && s->merges[lo] >> 24 == key ? (uint32_t)(s->merges[lo] & 0xffffff) : UINT32_MAX;
}

/* A character's bytes in well-formed UTF-8 by the table of the Unicode standard (3-7), or 0. */
static size_t g4_slow_char(const uint8_t *p, size_t n)
{
    static const uint8_t rows[][3] = {
        /* first byte up to, least and greatest second byte; more than greatest: none will do */
        { 0xC1, 1, 0 },       { 0xDF, 0x80, 0xBF }, { 0xE0, 0xA0, 0xBF }, { 0xEC, 0x80, 0xBF }, { 0xED, 0x80, 0x9F },
        { 0xEF, 0x80, 0xBF }, { 0xF0, 0x90, 0xBF }, { 0xF3, 0x80, 0xBF }, { 0xF4, 0x80, 0x8F }, { 0xFF, 1, 0 }
    };
    if (p[0] < 0x80) return 1;
    size_t i = 0;
    while (p[0] > rows[i][0]) i++;
    const size_t size = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    if (n < size || p[1] < rows[i][1] || p[1] > rows[i][2]) return 0;
    for (size_t k = 2; k < size; k++) {
        if (p[k] >> 6 != 2) return 0;
    }
    return size;
}

/* Ids of text without tokens that are matched as a whole. One-character tokens are found by encoding the character
 * alone. */
static size_t g4_slow_encode(const g4_vocab *v, const g4_slow *s, const uint8_t *text, size_t len, uint32_t *ids)
{
    size_t n = 0;
    for (size_t p = 0; p < len;) {
        size_t k = g4_slow_char(text + p, len - p);
        if (k == 0) k = 1;
        g4_tokens one = g4_encode(&v->t, text + p, k, 0);
        for (size_t i = 0; i < one.n; i++) ids[n++] = (uint32_t)one.ids[i];
        g4_free(NULL, one.ids);
        p += k;
    }
    for (;;) {
        uint32_t best = UINT32_MAX;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const uint32_t rank = g4_slow_rank(s, ids[i], ids[i + 1]);
            if (rank < best) best = rank, at = i;
        }
        if (best == UINT32_MAX) return n;
        ids[at] = s->joined[best];
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

/* Random text: pieces of the vocabulary whole or cut, runs, characters of all sizes, stray bytes. No token of the trie.
 *  */
static size_t g4_random_text(const g4_vocab *v, uint8_t *text, size_t cap)
{
    size_t n = 0;
    const uint32_t parts = 1 + g4_random(10);
    for (uint32_t i = 0; i < parts && n + 300 < cap; i++) {
        char piece[256];
        int special = 0;
        const uint32_t kind = g4_random(10);
        if (kind < 6) {
            const size_t k = g4_tokenizer_piece(&v->t, (g4_token)g4_random(v->n_vocab), piece, &special);
            const size_t from = kind < 4 || k == 0 ? 0 : g4_random((uint32_t)k);
            if (special) continue;
            memcpy(text + n, piece + from, k - from);
            n += k - from;
        } else if (kind == 6) {
            const char c = "ae x=-.0"[g4_random(8)];
            for (uint32_t k = g4_random(80); k > 0; k--) text[n++] = (uint8_t)c;
        } else if (kind == 7) {
            for (uint32_t k = g4_random(6); k > 0; k--) text[n++] = (uint8_t)(0x80 + g4_random(0x80));
        } else if (kind == 8) {
            for (uint32_t k = g4_random(20); k > 0; k--) text[n++] = (uint8_t)(0x20 + g4_random(0x5f));
        } else {
            const uint32_t c = g4_random(2) ? 0x4E00 + g4_random(0x5000) : 0x2581;
            text[n++] = (uint8_t)(0xE0 | c >> 12);
            text[n++] = (uint8_t)(0x80 | (c >> 6 & 63));
            text[n++] = (uint8_t)(0x80 | (c & 63));
        }
    }
    return n;
}

/* A token of the trie that is always matched makes the reference wrong: none of the texts above may hold one. */
static int g4_has_whole(const g4_vocab *v, const uint8_t *text, size_t len)
{
    static const char *const always[] = { "<b>",          "</b>", "<box>", "</box>", "<table>",
                                          "[multimodal]", "\r\n", "\t",    "\n" };
    if (strstr(v->name, "vocab.g4") != NULL) return 0;
    for (size_t i = 0; i < sizeof always / sizeof *always; i++) {
        const size_t k = strlen(always[i]);
        for (size_t p = 0; p + k <= len; p++) {
            if (memcmp(text + p, always[i], k) == 0) return 1;
        }
    }
    return 0;
}

static void g4_test_reference(const g4_vocab *v, int n_texts)
{
    g4_slow s = g4_slow_open(v);
    int wrong = 0, checked = 0;
    for (int i = 0; i < n_texts; i++) {
        uint8_t text[2048];
        uint32_t want[2048];
        const size_t len = g4_random_text(v, text, sizeof text);
        if (len == 0 || g4_has_whole(v, text, len)) continue;
        const size_t n = g4_slow_encode(v, &s, text, len, want);
        g4_tokens ids = g4_encode(&v->t, text, len, 0);
        wrong += ids.n != n || memcmp(ids.ids, want, n * sizeof *want) != 0;
        checked++;
        g4_free(NULL, ids.ids);
    }
    free(s.merges);
    G4_EXPECT(wrong == 0 && checked > n_texts / 2, "%s: %d of %d random texts differ from literal BPE", v->name, wrong,
              checked);
}

/* ---- The shared examples --------------------------------------------------------------------- */

static size_t g4_base64(const char *s, size_t n, uint8_t *out)
{
    uint32_t acc = 0;
    int bits = 0;
    size_t k = 0;
    for (size_t i = 0; i < n && s[i] != '='; i++) {
        const char c = s[i];
        int x = c == '+' ? 62 : 63;
        if (c >= 'A' && c <= 'Z')
            x = c - 'A';
        else if (c >= 'a' && c <= 'z')
            x = c - 'a' + 26;
        else if (c >= '0' && c <= '9')
            x = c - '0' + 52;
        acc = acc << 6 | (uint32_t)x;
        if ((bits += 6) >= 8) {
            bits -= 8;
            out[k++] = (uint8_t)(acc >> bits);
        }
    }
    return k;
}

static int g4_is_true(const g4_json *o, const char *key)
{
    const g4_json *x = g4_json_get(o, key);
    return x != NULL && x->kind == G4_JSON_TRUE;
}

static void g4_check_tokenize(const g4_vocab *v, const g4_json *o)
{
    const g4_json *text = g4_json_get(o, "text"), *b64 = g4_json_get(o, "bytes_b64"), *id = g4_json_get(o, "ids");
    const g4_json *src = text != NULL ? text : b64;
    uint8_t *bytes = malloc(src->text_len + 1);
    size_t len = src->text_len;
    if (src == b64)
        len = g4_base64(src->text, src->text_len, bytes);
    else
        memcpy(bytes, src->text, len);
    g4_tokens ids = g4_encode(&v->t, bytes, len, g4_is_true(o, "parse_special"));
    size_t i = 0;
    int ok = 1;
    id = id->child;
    if (g4_is_true(o, "add_special")) {
        ok = id != NULL && id->number == 2;
        if (ok) id = id->next;
    }
    for (; ok && id != NULL; id = id->next, i++) ok = i < ids.n && (double)ids.ids[i] == id->number;
    G4_EXPECT(ok && i == ids.n, "%s", g4_json_get(o, "id")->text);
    g4_free(NULL, ids.ids);
    free(bytes);
}

/* Feed out's bytes in two parts, cut at every place: each part must come out as whole characters. */
static void g4_check_streaming(const uint8_t *text, size_t len, int *bad)
{
    char *out = malloc(2 * len + 16);
    for (size_t cut = 0; cut <= len; cut++) {
        g4_utf8 u = { { 0 }, 0 };
        size_t n = g4_utf8_push(&u, (const char *)text, cut, out);
        /* what came out must end where a character ends: nothing unfinished that the rest completes */
        for (size_t k = 1; k <= 3 && k <= n; k++) {
            if ((uint8_t)out[n - k] >= 0xC2 && g4_slow_char(text + n - k, len - (n - k)) > k) (*bad)++;
        }
        if (cut - n > 3) (*bad)++;
        n += g4_utf8_push(&u, (const char *)text + cut, len - cut, out + n);
        n += g4_utf8_push(&u, NULL, 0, out + n);
        if (n != len || memcmp(out, text, len) != 0 || u.n_held != 0) (*bad)++;
    }
    free(out);
}

static void g4_check_decode(const g4_vocab *v, const g4_json *o)
{
    const g4_json *b64 = g4_json_get(o, "bytes_b64");
    uint8_t *want = malloc(b64->text_len + 1);
    const size_t len = g4_base64(b64->text, b64->text_len, want);
    g4_tokens ids = { 0 };
    size_t n_ids = 0;
    for (const g4_json *x = g4_json_get(o, "ids")->child; x != NULL; x = x->next) n_ids++;
    ids.ids = g4_alloc(NULL, n_ids + 1, sizeof *ids.ids);
    for (const g4_json *x = g4_json_get(o, "ids")->child; x != NULL; x = x->next)
        ids.ids[ids.n++] = (g4_token)x->number;
    const int skip = g4_is_true(o, "skip_special");
    g4_buf b = g4_decode(&v->t, ids.ids, ids.n, skip);
    G4_EXPECT(b.len == len && (len == 0 || memcmp(b.data, want, len) == 0), "%s", g4_json_get(o, "id")->text);
    g4_buf_free(&b);
    /* token by token through the stream */
    g4_utf8 u = { { 0 }, 0 };
    char piece[256], out[512];
    int special;
    for (size_t i = 0; i < ids.n; i++) {
        const size_t k = g4_tokenizer_piece(&v->t, ids.ids[i], piece, &special);
        if (special && skip) continue;
        g4_buf_add(&b, out, g4_utf8_push(&u, piece, k, out));
    }
    g4_buf_add(&b, out, g4_utf8_push(&u, NULL, 0, out));
    G4_EXPECT(b.len == len && (len == 0 || memcmp(b.data, want, len) == 0), "streamed %s", g4_json_get(o, "id")->text);
    g4_buf_free(&b);
    int bad = 0;
    g4_check_streaming(want, len, &bad);
    G4_EXPECT(bad == 0, "split %s: %d", g4_json_get(o, "id")->text, bad);
    g4_free(NULL, ids.ids);
    free(want);
}

static void g4_each_line(const g4_vocab *v, const char *path, void (*fn)(const g4_vocab *v, const g4_json *o))
{
    size_t size = 0;
    uint8_t *data = g4_read_all(path, &size);
    if (data == NULL) {
        G4_SKIP(path);
        return;
    }
    for (size_t p = 0, end; p < size; p = end + 1) {
        for (end = p; end < size && data[end] != '\n'; end++) {
        }
        g4_error err = { 0 };
        g4_json *o = NULL;
        if (end == p) continue;
        if (g4_json_parse(&o, NULL, (const char *)data + p, end - p, &err) == G4_OK)
            fn(v, o);
        else
            G4_EXPECT(0, "%s: %s", path, err.message);
        g4_json_free(NULL, o);
    }
    free(data);
}

/* Every byte outside a well-formed sequence is its byte token: overlong forms, surrogates, cut and impossible ones. */
static void g4_test_malformed(const g4_vocab *v)
{
    static const char *const broken[] = { "\xc1\x81",
                                          "\xc0\xa0",
                                          "\xe0\x81\x81",
                                          "\xe0\x83\xa9",
                                          "\xe0\x9f\xbf",
                                          "\xf0\x80\x81\x81",
                                          "\xf0\x80\x83\xa9",
                                          "\xf0\x82\x96\x81",
                                          "\xed\xa0\x80",
                                          "\xed\xbf\xbf",
                                          "\xf4\x90\x80\x80",
                                          "\xf5\x80\x80\x80",
                                          "\xe4\xb8",
                                          "\xf0\x9f\xa7",
                                          "\x80",
                                          "\xbf\xbf",
                                          "\xff",
                                          "\xe4\xb8\xe4\xb8",
                                          "\xc3\xc3" };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        char text[16];
        const int n = snprintf(text, sizeof text, "a%sb", broken[i]), k = n - 2;
        g4_tokens ids = g4_encode(&v->t, text, (size_t)n, 0);
        int ok = ids.n == (size_t)n;
        for (int j = 0; ok && j < k; j++) ok = ids.ids[1 + j] == 238 + (uint8_t)broken[i][j];
        G4_EXPECT(ok, "case %zu: %zu ids of %d bytes", i, ids.n, n);
        g4_free(NULL, ids.ids);
    }
}

/* ---- Specials, streaming, memory, damage, time ------------------------------------------------- */

static void g4_test_specials(const g4_vocab *v)
{
    static const struct {
        const char *name;
        g4_token id;
    } real[] = { { "<pad>", 0 },
                 { "<bos>", 2 },
                 { "<|tool_call>", 48 },
                 { "<|\"|>", 52 },
                 { "<channel|>", 101 },
                 { "<|turn>", 105 },
                 { "<|image>", 255999 },
                 { "<|video|>", 258884 },
                 { "<|turn", -1 },
                 { "<|turn>x", -1 },
                 { "", -1 },
                 { "<unused3>", -1 },
                 { "a", -1 } };
    for (size_t i = 0; i < sizeof real / sizeof *real; i++) {
        const g4_token id = g4_tokenizer_special(&v->t, real[i].name, strlen(real[i].name));
        G4_EXPECT(id == real[i].id, "%s: %d", real[i].name, id);
    }
    /* no control token out of untrusted text, and each exactly once out of trusted text */
    int n_control = 0, leaked = 0, missed = 0;
    for (g4_token id = 0; id < (g4_token)v->n_vocab; id++) {
        char piece[256], text[600];
        int special;
        const size_t k = g4_tokenizer_piece(&v->t, id, piece, &special);
        if (!special) continue;
        n_control++;
        const int n = snprintf(text, sizeof text, "x%.*s %.*s<", (int)k, piece, (int)k, piece);
        g4_tokens plain = g4_encode(&v->t, text, (size_t)n, 0), trusted = g4_encode(&v->t, text, (size_t)n, 1);
        int seen = 0, control;
        for (size_t i = 0; i < plain.n; i++)
            leaked += g4_tokenizer_piece(&v->t, plain.ids[i], piece, &control) && control;
        for (size_t i = 0; i < trusted.n; i++) seen += trusted.ids[i] == id;
        missed += seen != 2;
        g4_free(NULL, plain.ids);
        g4_free(NULL, trusted.ids);
    }
    G4_EXPECT(n_control == 24 && leaked == 0 && missed == 0, "%d control tokens, %d leaked, %d missed", n_control,
              leaked, missed);
    char piece[256];
    int special;
    G4_EXPECT(g4_tokenizer_piece(&v->t, -1, piece, &special) == 0 &&
                  g4_tokenizer_piece(&v->t, (g4_token)v->n_vocab, piece, &special) == 0,
              "ids outside the vocabulary");
}

static void g4_test_stream(void)
{
    int bad = 0;
    const char *good = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\xa7\xaa\xed\x9f\xbf\xf4\x8f\xbf\xbfz";
    g4_check_streaming((const uint8_t *)good, strlen(good), &bad);
    for (int i = 0; i < 3000; i++) { /* leads, continuations and ASCII in any order, cut at every place */
        uint8_t text[24];
        const size_t len = g4_random(24);
        for (size_t k = 0; k < len; k++) text[k] = (uint8_t)(g4_random(4) ? 0x80 + g4_random(0x80) : g4_random(0x80));
        g4_check_streaming(text, len, &bad);
    }
    G4_EXPECT(bad == 0, "%d bad splits", bad);
    /* nothing that can no longer be completed is held back */
    static const char *const broken[] = { "\xe0\x80", "\xed\xa0", "\xf0\x80",     "\xf4\x90",
                                          "\xc0",     "\xff",     "\xe2\x82\x41", "\x80" };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        g4_utf8 u = { { 0 }, 0 };
        char out[16];
        G4_EXPECT(g4_utf8_push(&u, broken[i], strlen(broken[i]), out) == strlen(broken[i]), "%zu", i);
    }
}

static void g4_test_memory(const g4_vocab *v)
{
    char *text = malloc(5001); /* short words, a long one, a control token */
    memset(text, 'q', 5000);
    memcpy(text, "some short words <|turn> and more ", 34);
    for (int i = 0; i < 2000; i++) text[34 + i] = (char)('a' + g4_random(26));
    int n_failed = 0;
    for (long at = 0; at < 1000; at++) {
        g4_failing f = { 0, at, 0 };
        g4_allocator a = g4_failing_allocator(&f);
        g4_tokens ids = { 0 };
        g4_error err = { 0 };
        const g4_status st = g4_tokenizer_encode(&v->t, &a, text, 5000, 1, &ids, NULL, &err);
        if (st == G4_OK) {
            G4_EXPECT(n_failed >= 4, "only %d allocations", n_failed);
            g4_free(&a, ids.ids);
            G4_EXPECT(f.live == 0, "%ld blocks leaked", f.live);
            break;
        }
        n_failed++;
        G4_EXPECT(st == G4_ERR_MEMORY && err.code == st && ids.n == 0, "allocation %ld: %d %s, %zu ids", at, st,
                  err.message, ids.n);
        g4_free(&a, ids.ids);
        G4_EXPECT(f.live == 0, "allocation %ld: %ld blocks leaked", at, f.live);
    }
    /* appending keeps what was there, also when it fails */
    g4_tokens ids = g4_encode(&v->t, "one", 3, 0);
    const size_t n = ids.n;
    g4_failing f = { 0, 0, 0 };
    g4_allocator a = g4_failing_allocator(&f);
    G4_EXPECT(g4_tokenizer_encode(&v->t, &a, text, 5000, 1, &ids, NULL, NULL) == G4_ERR_MEMORY && ids.n == n, "%zu ids",
              ids.n);
    G4_EXPECT(g4_tokenizer_encode(&v->t, NULL, " two", 4, 0, &ids, NULL, NULL) == G4_OK && ids.n > n, "%zu ids", ids.n);
    g4_buf b = g4_decode(&v->t, ids.ids, ids.n, 0);
    G4_EXPECT(b.len == 7 && memcmp(b.data, "one two", 7) == 0, "%s", b.data);
    g4_buf_free(&b);
    g4_free(NULL, ids.ids);
    free(text);
}

/* Every cut and every edit of the header is refused or harmless, and so are edits of the tables. */
static void g4_test_damage(const g4_vocab *v, int n_edits)
{
    const char *text =
        "Some text </b> with <|turn>, \xe6\x97\xa5\xe6\x9c\xac \xd0\xb4\xd0\xb0 and a very very long one: "
        "thaithaithaithaithaithaithaithaithaithaithaithaithaithaithaithaithai\xff";
    const size_t header = 64 + 8 * 13;
    int accepted = 0;
    g4_tokenizer t;
    for (size_t size = 0; size < v->size; size += size < 200 ? 1 : 997) {
        uint8_t *cut = malloc(size + 1);
        memcpy(cut, v->blob, size);
        accepted += g4_tokenizer_bind(&t, cut, size, v->n_vocab, NULL) == G4_OK;
        free(cut);
    }
    G4_EXPECT(accepted == 0, "%d truncated vocabularies accepted", accepted);
    G4_EXPECT(g4_tokenizer_bind(&t, v->blob, v->size, v->n_vocab + 1, NULL) == G4_ERR_FORMAT, "wrong n_vocab");
    G4_EXPECT(g4_tokenizer_bind(&t, NULL, 0, v->n_vocab, NULL) == G4_ERR_FORMAT, "no blob");

    uint8_t *blob = malloc(v->size);
    int outside = 0;
    for (int i = 0; i < n_edits; i++) {
        memcpy(blob, v->blob, v->size);
        const int many = (int)(i % 3 == 0 ? 1 : g4_random(64));
        for (int k = 0; k < many; k++) { /* header, small tables and everything get their share */
            const uint32_t where = i % 3 == 0 ? (uint32_t)(i / 3) % (uint32_t)header : g4_random((uint32_t)v->size);
            blob[where] = (uint8_t)(i % 2 ? g4_random(256) : blob[where] ^ 1u << g4_random(8));
        }
        if (i % 7 == 6) { /* a whole part gone wild */
            const uint32_t part = g4_random(13), at = g4_u32(v->blob + 64 + 8 * part),
                           n = g4_u32(v->blob + 68 + 8 * part);
            for (uint32_t k = 0; k < n; k++) blob[at + k] = (uint8_t)(i % 2 ? 0xff : g4_random(256));
        }
        if (g4_tokenizer_bind(&t, blob, v->size, v->n_vocab, NULL) != G4_OK) continue;
        g4_tokens ids = g4_encode(&t, text, strlen(text), i & 1);
        for (size_t k = 0; k < ids.n; k++) outside += ids.ids[k] < 0 || (uint32_t)ids.ids[k] >= v->n_vocab;
        for (g4_token id = 0; id < (g4_token)v->n_vocab; id += 1 + (g4_token)g4_random(50)) {
            char piece[256];
            int special;
            outside += g4_tokenizer_piece(&t, id, piece, &special) > 255;
        }
        const g4_token id = g4_tokenizer_special(&t, "<|turn>", 7);
        outside += id < -1 || id >= (g4_token)v->n_vocab;
        g4_free(NULL, ids.ids);
    }
    free(blob);
    G4_EXPECT(outside == 0, "%d ids or pieces out of range", outside);
}

static void g4_test_fuzz(int n)
{
    uint8_t data[512];
    for (int i = 0; i < n; i++) {
        const size_t len = 2 + g4_random(sizeof data - 2);
        for (size_t k = 0; k < len; k++)
            data[k] = (uint8_t)(g4_random(3) ? "ae thkl<|turn>\n\xe2\x96\x81"[g4_random(18)] : (int)g4_random(256));
        data[0] = (uint8_t)i;
        LLVMFuzzerTestOneInput(data, len);
    }
    const int n_inputs = g4_replay("tests/fuzz/corpus_tokenizer", LLVMFuzzerTestOneInput, 4);
    G4_EXPECT(n_inputs > 30, "%d inputs in the corpus", n_inputs);
    free(g4_fuzz_blob);
}

static double g4_encode_seconds(const g4_tokenizer *t, const uint8_t *text, size_t len)
{
    double best = 1e9;
    for (int i = 0; i < 3; i++) {
        struct timespec a, b;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
        g4_tokens ids = g4_encode(t, text, len, 1);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
        g4_free(NULL, ids.ids);
        const double s = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
        if (s < best) best = s;
    }
    return best;
}

/* Eight times the text in at most 32 times the processor time: a quadratic method takes 64 times. */
static void g4_test_linear(const g4_vocab *v)
{
    const size_t n = 1u << 20;
    static const char *const kinds[] = { "a",        " ",   "\n",           "ab",
                                         "<",        "<|",  "\xe4\xb8\xad", "abcdefghijklmnopqrstuvwxyz",
                                         "\xf0\x9f", "> </" };
    uint8_t *text = malloc(n);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        const size_t m = strlen(kinds[k]);
        for (size_t i = 0; i < n; i++) text[i] = (uint8_t)(k == 7 ? kinds[k][g4_random(26)] : kinds[k][i % m]);
        const double a = g4_encode_seconds(&v->t, text, n / 8), b = g4_encode_seconds(&v->t, text, n);
        G4_EXPECT(b < 32 * a + 0.02, "\"%s\": %.1f ms for 128 KiB, %.1f ms for 1 MiB", kinds[k], 1e3 * a, 1e3 * b);
    }
    free(text);
}

static void g4_test_bind_time(const g4_vocab *v)
{
    struct timespec a, b;
    g4_tokenizer t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    for (int i = 0; i < 1000; i++) g4_tokenizer_bind(&t, v->blob, v->size, v->n_vocab, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    const double s = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
    G4_EXPECT(s < 0.5, "binding takes %.1f us", 1e3 * s);
}

/* The same through the public interface, from the file. */
static void g4_test_engine(void)
{
    g4_engine *e = NULL;
    g4_error err = { 0 };
    const g4_status st =
        g4_engine_open(&e, &(g4_engine_options) { .model_path = "tests/data/vocab.g4", .n_threads = 1 }, &err);
    G4_EXPECT(st == G4_OK, "%s", err.message);
    if (st != G4_OK) return;
    g4_token ids[8];
    size_t n = 0;
    const char *text = "Pack my box with five dozen liquor jugs, won't you?";
    G4_EXPECT(g4_tokenize(e, text, strlen(text), 0, ids, 8, &n, &err) == G4_OK && n == 14 && ids[0] == 12415 &&
                  ids[7] == 192776,
              "%zu ids, %s", n, err.message);
    char piece[256];
    G4_EXPECT(g4_token_bytes(e, 12415, 0, piece) == 4 && memcmp(piece, "Pack", 4) == 0, "piece");
    G4_EXPECT(g4_token_bytes(e, 105, 0, piece) == 7 && g4_token_bytes(e, 105, 1, piece) == 0, "control token");
    G4_EXPECT(g4_token_bytes(e, -1, 0, piece) == 0 && g4_token_bytes(e, 262144, 0, piece) == 0, "outside");
    g4_engine_close(e);
}

int main(void)
{
    g4_vocab real, small, spm;
    if (g4_open_vocab(&real, "tests/data/vocab.g4") && g4_open_vocab(&small, "tests/data/tokenizer_small.g4") &&
        g4_open_vocab(&spm, "tests/data/tokenizer_spm.g4")) {
        g4_each_case(&real, "tests/data/tokenizer_gemma4.bin", g4_check_golden);
        g4_each_case(&small, "tests/data/tokenizer_small.bin", g4_check_golden);
        g4_each_case(&spm, "tests/data/tokenizer_spm.bin", g4_check_golden);
        g4_each_line(&real, SHARED "tokenize.jsonl", g4_check_tokenize);
        g4_each_line(&real, SHARED "decode.jsonl", g4_check_decode);
        g4_test_reference(&real, 2000);
        g4_test_reference(&small, 2000);
        g4_test_reference(&spm, 2000);
        g4_test_specials(&real);
        g4_test_malformed(&real);
        g4_test_stream();
        g4_test_memory(&real);
        g4_test_damage(&small, 3000);
        g4_test_damage(&spm, 1000);
        g4_test_fuzz(3000);
        g4_test_linear(&real);
        g4_test_bind_time(&real);
        g4_test_engine();
    }
    free(real.blob);
    free(small.blob);
    free(spm.blob);
    return g4_test_end();
}
