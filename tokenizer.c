/* tokenizer.c - text to token ids and back (MODEL.md 4).
 *
 * The algorithm is byte-pair encoding without pre-tokenization: a text is one word of code points (a space counts as
 * U+2581), and the adjacent pair of lowest rank is joined, the leftmost on a tie, until no adjacent pair has a rank.
 * Characters outside the vocabulary, and every byte outside a well-formed UTF-8 sequence, become byte tokens, which
 * nothing joins. Three things make it fast and keep it exact:
 *
 *   cuts    A pair can only be joined over a boundary if some joined token contains the two characters beside it. Where
 *           none does, the text is cut, and the words are encoded by themselves. In English that is before nearly every
 *           space.
 *   cache   Short words repeat: one call remembers the ids of those it has seen.
 *   heap    A long word keeps its pairs in a heap ordered by (rank, place), so that time grows as n log n whatever the
 *           text is.
 *
 *  1  The tokenizer section of a model file
 *  2  Lookups
 *  3  One word
 *  4  Text to ids
 *  5  Ids to text
 */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "engine/parts.h"

#include <string.h>

/* ---- 1. The tokenizer section of a model file -----------------------------------------------------
 *
 * Little-endian, written by export.py (section "Tokenizer blob"). All structures stand ready; binding checks the sizes
 * below against each other and the section, in constant time. What the tables contain is not trusted: every index read
 * from one is compared with its bound where it is used, so a damaged file gives wrong ids, never a wrong access.
 *
 *   0  char magic[8]         "G4TOKENS"
 *   8  u32 version           1
 *  12  u32 size              of the whole section
 *  16  u32 n_vocab           ids; less than 2^20
 *  20  u32 flags             1: a text begins with <bos>
 *  24  u32 n_merges          ranks; less than 2^24 - 1
 *  28  u32 n_slots           of the merge table, at least 1
 *  32  u32 n_buckets         of the merge table, at least 1
 *  36  u32 n_pages           of the character table
 *  40  u32 pair_bits         log2 of the bits of the pair filter, 10 to 30
 *  44  u32 n_nodes           of the trie, at least 1
 *  48  u32 depth             bytes of the longest token in the trie, at most 255
 *  52  u32 n_parts           13
 *  56  u32 reserved[2]
 *  64  { u32 offset, size; } part[13]   from the start of the section, multiples of 64
 *
 *   OFFSETS    u32[n_vocab + 1]: token i writes bytes [offset[i], offset[i + 1]) of STRINGS, at most 255
 *   STRINGS    what tokens write: names of control tokens, the byte of a byte token, else text with U+2581 replaced by
 *              a space
 *   CONTROL    u32[ceil(n_vocab / 32)]: bit i % 32 of word i / 32 is set for control tokens
 *   PAGES      u16[0x110000 / 64]: page of the code points c with this c / 64; page 0 is empty
 *   CHARS      u32[n_pages][64]: id of code point c at c % 64, or 0xffffffff. U+0020 has the id of U+2581
 *   BYTES      u32[256]: ids of the byte tokens
 *   BUCKETS    u16[n_buckets]: displacement d of a bucket of merges, and
 *   MERGES     u64[n_slots]: left id << 44 | right id << 24 | rank, all ones when empty: a perfect hash, see
 *              g4_tok_find
 *   JOINED     u32[n_merges]: by rank, the id that the pair becomes
 *   ASCII      u64[128][2]: bit b % 64 of [a][b / 64] is set if a joined token contains the characters a b (U+2581 as a
 *              space)
 *   PAIRS      bits: the same for pairs with a character beyond ASCII, hashed by g4_tok_may_join; false positives cost
 *              time only
 *   TRIE       12-byte nodes { u32 first child; u32 id or 0xffffffff; u16 n children; u8 byte; u8 kind }, node 0 the
 *              root, children adjacent and sorted by byte: the tokens matched in the text itself. kind 1: a control
 *              token, matched in trusted text only; 2: always matched (Gemma 3: HTML tags, runs of line feeds)
 *   FIRST      u8[256]: kinds of the tokens in the trie that begin with this byte, or-ed
 */
enum {
    G4_TOK_OFFSETS,
    G4_TOK_STRINGS,
    G4_TOK_CONTROL,
    G4_TOK_PAGES,
    G4_TOK_CHARS,
    G4_TOK_BYTES,
    G4_TOK_BUCKETS,
    G4_TOK_MERGES,
    G4_TOK_JOINED,
    G4_TOK_ASCII,
    G4_TOK_PAIRS,
    G4_TOK_TRIE,
    G4_TOK_FIRST,
    G4_TOK_N_PARTS
};

#define G4_TOK_MAGIC "G4TOKENS"
#define G4_TOK_VERSION 1u
#define G4_TOK_HEADER (64u + 8u * G4_TOK_N_PARTS)
#define G4_TOK_MAX_PIECE 255u
#define G4_TOK_N_PAGES (0x110000u / 64u)
#define G4_TOK_NONE 0xffffffffu

enum { G4_TOK_KIND_CONTROL = 1, G4_TOK_KIND_ALWAYS = 2 };

struct g4_tok_node { /* as in the file: 12 bytes */
    uint32_t first, id;
    uint16_t n;
    uint8_t byte, kind;
};

g4_status g4_tokenizer_bind(g4_tokenizer *t, const void *blob, size_t size, uint32_t n_vocab, g4_error *err)
{
    memset(t, 0, sizeof *t);
    if (blob == NULL || size < G4_TOK_HEADER) {
        return g4_fail(err, G4_ERR_FORMAT, "tokenizer: %zu bytes, too short for its header", blob == NULL ? 0 : size);
    }
    if ((uintptr_t)blob % 8 != 0) return g4_fail(err, G4_ERR_FORMAT, "tokenizer: not aligned to 8 bytes");
    g4_reader r = { blob, size, 0, 0 };
    if (memcmp(g4_read_bytes(&r, 8), G4_TOK_MAGIC, 8) != 0)
        return g4_fail(err, G4_ERR_FORMAT, "tokenizer: wrong magic");
    const uint32_t version = g4_read_u32(&r);
    if (version != G4_TOK_VERSION) {
        return g4_fail(err, G4_ERR_VERSION, "tokenizer: version %u, this library reads %u", (unsigned)version,
                       G4_TOK_VERSION);
    }
    const uint32_t total = g4_read_u32(&r);
    if (total < G4_TOK_HEADER || total > size) {
        return g4_fail(err, G4_ERR_FORMAT, "tokenizer: says %u bytes, has %zu", (unsigned)total, size);
    }
    const uint32_t n_tokens = g4_read_u32(&r);
    if (n_tokens != n_vocab || n_vocab == 0 || n_vocab >= 1u << 20) {
        return g4_fail(err, G4_ERR_FORMAT, "tokenizer: %u tokens, the model has %u", (unsigned)n_tokens,
                       (unsigned)n_vocab);
    }
    g4_read_u32(&r); /* flags: for other readers */
    const uint32_t n_merges = g4_read_u32(&r), n_slots = g4_read_u32(&r), n_buckets = g4_read_u32(&r);
    const uint32_t n_pages = g4_read_u32(&r), bits = g4_read_u32(&r), n_nodes = g4_read_u32(&r);
    const uint32_t depth = g4_read_u32(&r), n_parts = g4_read_u32(&r);
    g4_read_u64(&r); /* reserved */
    if (n_merges >= (1u << 24) - 1 || n_slots == 0 || n_buckets == 0 || n_pages == 0 || n_pages > 0x10000u ||
        bits < 10 || bits > 30 || n_nodes == 0 || depth > G4_TOK_MAX_PIECE || n_parts != G4_TOK_N_PARTS) {
        return g4_fail(err, G4_ERR_FORMAT, "tokenizer: a count in its header is out of range");
    }
    const uint64_t want[G4_TOK_N_PARTS] = { [G4_TOK_OFFSETS] = 4 * ((uint64_t)n_vocab + 1),
                                            [G4_TOK_STRINGS] = 0 /* any */,
                                            [G4_TOK_CONTROL] = 4 * (((uint64_t)n_vocab + 31) / 32),
                                            [G4_TOK_PAGES] = 2 * G4_TOK_N_PAGES,
                                            [G4_TOK_CHARS] = 256 * (uint64_t)n_pages,
                                            [G4_TOK_BYTES] = 4 * 256,
                                            [G4_TOK_BUCKETS] = 2 * (uint64_t)n_buckets,
                                            [G4_TOK_MERGES] = 8 * (uint64_t)n_slots,
                                            [G4_TOK_JOINED] = 4 * (uint64_t)n_merges,
                                            [G4_TOK_ASCII] = 2048,
                                            [G4_TOK_PAIRS] = (uint64_t)1 << (bits - 3),
                                            [G4_TOK_TRIE] = sizeof(g4_tok_node) * (uint64_t)n_nodes,
                                            [G4_TOK_FIRST] = 256 };
    const void *part[G4_TOK_N_PARTS];
    uint32_t strings_size = 0;
    for (int i = 0; i < G4_TOK_N_PARTS; i++) {
        const uint32_t offset = g4_read_u32(&r), bytes = g4_read_u32(&r);
        if (offset % 64 != 0 || offset > total || bytes > total - offset || (i != G4_TOK_STRINGS && bytes != want[i])) {
            return g4_fail(err, G4_ERR_FORMAT, "tokenizer: part %d has %u bytes at %u of %u", i, (unsigned)bytes,
                           (unsigned)offset, (unsigned)total);
        }
        part[i] = (const uint8_t *)blob + offset;
        if (i == G4_TOK_STRINGS) strings_size = bytes;
    }
    *t = (g4_tokenizer) { .n_vocab = n_vocab,
                          .n_ranks = n_merges,
                          .n_slots = n_slots,
                          .n_buckets = n_buckets,
                          .n_pages = n_pages,
                          .pair_bits = bits,
                          .n_nodes = n_nodes,
                          .depth = depth,
                          .strings_size = strings_size,
                          .offsets = part[G4_TOK_OFFSETS],
                          .strings = part[G4_TOK_STRINGS],
                          .control = part[G4_TOK_CONTROL],
                          .pages = part[G4_TOK_PAGES],
                          .chars = part[G4_TOK_CHARS],
                          .bytes = part[G4_TOK_BYTES],
                          .buckets = part[G4_TOK_BUCKETS],
                          .merges = part[G4_TOK_MERGES],
                          .joined = part[G4_TOK_JOINED],
                          .ascii = part[G4_TOK_ASCII],
                          .pairs = part[G4_TOK_PAIRS],
                          .trie = part[G4_TOK_TRIE],
                          .first = part[G4_TOK_FIRST] };
    return G4_OK;
}

/* ---- 2. Lookups ----------------------------------------------------------------------------------- */

/* Rank of the pair, or G4_TOK_NONE. A 64-bit mix of the key; its low half picks the bucket, whose displacement, mixed
 * into the high half, picks the only slot where the pair can be. */
static inline uint32_t g4_tok_find(const g4_tokenizer *t, uint32_t l, uint32_t r)
{
    const uint64_t key = (uint64_t)l << 20 | r;
    uint64_t x = key * 0x9E3779B97F4A7C15u;
    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93u;
    x ^= x >> 29;
    const uint32_t d = t->buckets[(x & 0xffffffffu) * t->n_buckets >> 32];
    const uint32_t h = ((uint32_t)(x >> 32) ^ d * 0x85EBCA6Bu) * 0x9E3779B1u;
    const uint64_t e = t->merges[(uint64_t)h * t->n_slots >> 32];
    const uint32_t rank = (uint32_t)(e & 0xffffffu);
    return e >> 24 == key && rank < t->n_ranks ? rank : G4_TOK_NONE;
}

/* Id of a code point, or G4_TOK_NONE. */
static inline uint32_t g4_tok_char(const g4_tokenizer *t, uint32_t cp)
{
    const uint32_t page = t->pages[cp >> 6];
    uint32_t id = G4_TOK_NONE;
    if (page < t->n_pages) id = t->chars[page * 64 + (cp & 63)];
    return id < t->n_vocab ? id : G4_TOK_NONE;
}

static inline uint32_t g4_tok_byte(const g4_tokenizer *t, uint8_t b)
{
    const uint32_t id = t->bytes[b];
    return id < t->n_vocab ? id : 0;
}

/* The id that the pair of this rank becomes. */
static inline uint32_t g4_tok_joined(const g4_tokenizer *t, uint32_t rank)
{
    const uint32_t id = t->joined[rank];
    return id < t->n_vocab ? id : 0;
}

/* Can a joined token contain a followed by b, at least one of them beyond ASCII? A space stands for U+2581. */
static inline int g4_tok_may_join(const g4_tokenizer *t, uint32_t a, uint32_t b)
{
    uint32_t h = a * 0x9E3779B1u + b * 0x85EBCA6Bu;
    h = ((h ^ h >> 15) * 0xC2B2AE35u) >> (32 - t->pair_bits);
    return t->pairs[h >> 3] >> (h & 7) & 1;
}

/* The same question for two ASCII characters; ascii is that part. */
static inline int g4_tok_ascii_join(const uint64_t *ascii, uint32_t a, uint32_t b)
{
    return (int)(ascii[2 * a + (b >> 6)] >> (b & 63) & 1);
}

/* Longest token of the given kinds at the start of text: its length and *id, or 0. With whole, only one of exactly n
 * bytes. */
static size_t g4_tok_match(const g4_tokenizer *t, const uint8_t *text, size_t n, int kinds, int whole, uint32_t *id)
{
    const g4_tok_node *nodes = t->trie;
    const uint32_t n_nodes = t->n_nodes;
    uint32_t node = 0;
    size_t found = 0;
    for (size_t i = 0; i < n && i < t->depth; i++) {
        uint32_t lo = nodes[node].first;
        if (lo == 0 || lo >= n_nodes || nodes[node].n > n_nodes - lo) break;
        const uint32_t end = lo + nodes[node].n;
        for (uint32_t hi = end; lo < hi;) { /* first child whose byte is not less */
            const uint32_t mid = lo + (hi - lo) / 2;
            if (nodes[mid].byte < text[i])
                lo = mid + 1;
            else
                hi = mid;
        }
        if (lo == end || nodes[lo].byte != text[i]) break;
        node = lo;
        if ((nodes[node].kind & kinds) && nodes[node].id < t->n_vocab && (!whole || i + 1 == n)) {
            *id = nodes[node].id;
            found = i + 1;
        }
    }
    return found;
}

/* ---- 3. One word ---------------------------------------------------------------------------------- */

#define G4_TOK_SHORT 48u                /* symbols up to which a scan for the lowest rank beats the heap */
#define G4_TOK_CACHED 3u                /* ids per remembered word */
#define G4_TOK_STRIDE ((size_t)1 << 16) /* bytes of a word between two of these questions: */
#define G4_TOK_PIECES 1024u             /* words or joins between two questions whether the call must end */

typedef struct { /* a word of at most 15 bytes: they and, in the last byte, their number; then its ids */
    uint64_t key[2];
    uint32_t n, ids[G4_TOK_CACHED];
} g4_tok_word;

typedef struct { /* a symbol of a long word, in a list */
    uint32_t id, prev, next;
    uint32_t rank; /* of the pair it makes with the next */
} g4_tok_symbol;

typedef struct {
    const g4_tokenizer *t;
    const g4_allocator *a;
    g4_tokens *out;
    g4_tok_word *cache; /* 1 << cache_bits */
    int cache_bits;
    g4_tok_symbol *symbols; /* of the longest word so far: cap, and a heap of 2 * cap */
    uint64_t *heap;
    size_t cap;
    g4_halt *halt;
    uint32_t n_pieces; /* words and joins so far */
} g4_tok_encoder;

/* One more word or join: must the call end? */
static inline int g4_tok_halted(g4_tok_encoder *e) { return ++e->n_pieces % G4_TOK_PIECES == 0 && g4_halted(e->halt); }

/* Room for n more ids; 0: no memory, or the halt ends the call. */
static int g4_tok_reserve(g4_tok_encoder *e, size_t n)
{
    g4_tokens *o = e->out;
    size_t cap;
    if (o->cap - o->n >= n) return 1;
    if (g4_add_overflows(o->n, n, &cap) || g4_add_overflows(cap, cap / 2 + 16, &cap)) return 0;
    g4_token *ids = g4_grow(e->a, o->ids, o->n * sizeof *ids, cap, sizeof *ids, e->halt);
    if (ids == NULL) return 0;
    o->ids = ids;
    o->cap = cap;
    return 1;
}

/* The next character of a word as symbols: one, or a byte token for each of its bytes. Returns the bytes taken. */
static inline size_t g4_tok_symbols(const g4_tokenizer *t, const uint8_t *p, size_t n, uint32_t ids[4], int *n_ids)
{
    uint32_t cp = 0;
    const size_t size = g4_utf8_decode(p, n, &cp);
    const uint32_t id = size == 0 ? G4_TOK_NONE : g4_tok_char(t, cp);
    *n_ids = 1;
    if (id != G4_TOK_NONE) {
        ids[0] = id;
        return size;
    }
    const size_t bytes = size == 0 ? 1 : size;
    for (size_t i = 0; i < bytes; i++) ids[i] = g4_tok_byte(t, p[i]);
    *n_ids = (int)bytes;
    return bytes;
}

/* Join in place, scanning for the lowest rank; returns the number of ids left. */
static uint32_t g4_tok_join_short(const g4_tokenizer *t, uint32_t *ids, uint32_t n)
{
    uint32_t rank[G4_TOK_SHORT];
    for (uint32_t i = 0; i + 1 < n; i++) rank[i] = g4_tok_find(t, ids[i], ids[i + 1]);
    while (n > 1) {
        uint32_t lowest = 0;
        for (uint32_t i = 1; i + 1 < n; i++) {
            if (rank[i] < rank[lowest]) lowest = i;
        }
        if (rank[lowest] == G4_TOK_NONE) break;
        ids[lowest] = g4_tok_joined(t, rank[lowest]);
        n--;
        for (uint32_t i = lowest + 1; i < n; i++) ids[i] = ids[i + 1];
        for (uint32_t i = lowest + 1; i + 1 < n; i++) rank[i] = rank[i + 1];
        if (lowest > 0) rank[lowest - 1] = g4_tok_find(t, ids[lowest - 1], ids[lowest]);
        if (lowest + 1 < n) rank[lowest] = g4_tok_find(t, ids[lowest], ids[lowest + 1]);
    }
    return n;
}

/* A binary heap of rank << 40 | place, the least on top. */
static void g4_tok_sift_down(uint64_t *heap, size_t n, size_t i, uint64_t key)
{
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= key) break;
        heap[i] = heap[child];
    }
    heap[i] = key;
}

static void g4_tok_push(uint64_t *heap, size_t *n, uint64_t key)
{
    size_t i = (*n)++;
    for (; i > 0 && heap[(i - 1) / 2] > key; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = key;
}

/* A word of any length. An entry of the heap is out of date when the rank of its place has changed. Each join takes one
 * entry out and puts at most two in, so the heap never holds more than two per symbol. */
static int g4_tok_join_long(g4_tok_encoder *e, const uint8_t *word, size_t len)
{
    const g4_tokenizer *t = e->t;
    if (len >= G4_TOK_NONE) return 0; /* places are 32 bits wide; a symbol has at least a byte */
    if (e->cap < len) {
        g4_free(e->a, e->symbols);
        g4_free(e->a, e->heap);
        e->cap = 0;
        e->symbols = g4_alloc(e->a, len, sizeof *e->symbols);
        e->heap = g4_alloc(e->a, len, 2 * sizeof *e->heap);
        if (e->symbols == NULL || e->heap == NULL) return 0;
        e->cap = len;
    }
    g4_tok_symbol *s = e->symbols;
    uint64_t *heap = e->heap;
    uint32_t n = 0;
    size_t n_heap = 0;
    for (size_t p = 0; p < len;) {
        uint32_t ids[4];
        int n_ids;
        if (g4_tok_halted(e)) return 0;
        p += g4_tok_symbols(t, word + p, len - p, ids, &n_ids);
        for (int i = 0; i < n_ids; i++, n++) s[n] = (g4_tok_symbol) { ids[i], n - 1, n + 1, G4_TOK_NONE };
    }
    for (uint32_t i = 0; i + 1 < n; i++) {
        if (g4_tok_halted(e)) return 0;
        s[i].rank = g4_tok_find(t, s[i].id, s[i + 1].id);
        if (s[i].rank != G4_TOK_NONE) heap[n_heap++] = (uint64_t)s[i].rank << 40 | i;
    }
    for (size_t i = n_heap / 2; i-- > 0 && !g4_tok_halted(e);) g4_tok_sift_down(heap, n_heap, i, heap[i]);

    while (n_heap > 0) {
        if (g4_tok_halted(e)) return 0;
        const uint64_t top = heap[0];
        const uint32_t i = (uint32_t)top, rank = (uint32_t)(top >> 40);
        n_heap--;
        if (n_heap > 0) g4_tok_sift_down(heap, n_heap, 0, heap[n_heap]);
        if (s[i].rank != rank) continue;
        const uint32_t gone = s[i].next, next = s[gone].next;
        s[gone].rank = G4_TOK_NONE;
        s[i].id = g4_tok_joined(t, rank);
        s[i].next = next;
        s[i].rank = G4_TOK_NONE;
        if (next < n) {
            s[next].prev = i;
            s[i].rank = g4_tok_find(t, s[i].id, s[next].id);
            if (s[i].rank != G4_TOK_NONE) g4_tok_push(heap, &n_heap, (uint64_t)s[i].rank << 40 | i);
        }
        if (i > 0) {
            const uint32_t prev = s[i].prev;
            s[prev].rank = g4_tok_find(t, s[prev].id, s[i].id);
            if (s[prev].rank != G4_TOK_NONE) g4_tok_push(heap, &n_heap, (uint64_t)s[prev].rank << 40 | prev);
        }
    }
    for (uint32_t i = 0; i < n; i = s[i].next) e->out->ids[e->out->n++] = (g4_token)s[i].id;
    return 1;
}

/* Append the ids of one word; `left` bytes are readable at word, at least len. */
static int g4_tok_encode_word(g4_tok_encoder *e, const uint8_t *word, size_t len, size_t left)
{
    const g4_tokenizer *t = e->t;
    if (!g4_tok_reserve(e, len + G4_TOK_CACHED)) return 0; /* a symbol has at least a byte */
    g4_token *out = e->out->ids + e->out->n;
    g4_tok_word *w = NULL;
    uint64_t key[2] = { 0, 0 };
    if (len < 16) {
        if (left >= 16) {
            memcpy(key, word, 16);
            if (len < 8) {
                key[0] &= ((uint64_t)1 << 8 * len) - 1;
                key[1] = 0;
            } else {
                key[1] &= ((uint64_t)1 << 8 * (len - 8)) - 1;
            }
        } else {
            memcpy(key, word, len);
        }
        key[1] |= (uint64_t)len << 56;
        uint64_t h = (key[0] ^ (key[1] << 32 | key[1] >> 32)) * 0x9E3779B97F4A7C15u;
        h = (h ^ h >> 32 ^ key[1]) * 0xD6E8FEB86659FD93u;
        w = &e->cache[h >> (64 - e->cache_bits)];
        if (w->key[0] == key[0] && w->key[1] == key[1]) {
            for (uint32_t i = 0; i < G4_TOK_CACHED; i++) out[i] = (g4_token)w->ids[i];
            e->out->n += w->n;
            return 1;
        }
    }
    uint32_t ids[G4_TOK_SHORT + 4], n = 0;
    size_t p = 0;
    while (p < len && n <= G4_TOK_SHORT) {
        int n_ids;
        p += g4_tok_symbols(t, word + p, len - p, ids + n, &n_ids);
        n += (uint32_t)n_ids;
        if (n > G4_TOK_SHORT) return g4_tok_join_long(e, word, len);
    }
    n = g4_tok_join_short(t, ids, n);
    for (uint32_t i = 0; i < n; i++) out[i] = (g4_token)ids[i];
    e->out->n += n;
    if (w != NULL && n <= G4_TOK_CACHED) {
        *w = (g4_tok_word) { { key[0], key[1] }, n, { 0 } };
        memcpy(w->ids, ids, n * sizeof *ids);
    }
    return 1;
}

/* ---- 4. Text to ids -------------------------------------------------------------------------------- */

/* Text without tokens that are matched as a whole: cut it where no token reaches across, and encode the words. */
static int g4_tok_encode_span(g4_tok_encoder *e, const uint8_t *text, size_t len)
{
    const g4_tokenizer *t = e->t;
    const uint64_t *ascii = t->ascii;
    for (size_t p = 0; p < len;) {
        const size_t start = p;
        size_t ask = p + G4_TOK_STRIDE;
        uint32_t prev = 0;
        if (g4_tok_halted(e)) return 0;
        size_t n = g4_utf8_decode(text + p, len - p, &prev);
        if (n == 0) { /* malformed: this byte by itself */
            if (!g4_tok_reserve(e, 1)) return 0;
            e->out->ids[e->out->n++] = (g4_token)g4_tok_byte(t, text[p++]);
            continue;
        }
        if (prev == 0x2581) prev = ' ';
        p += n;
        while (p < len) {
            uint32_t cp = text[p];
            if (p >= ask) {
                if (g4_halted(e->halt)) return 0;
                ask = p + G4_TOK_STRIDE;
            }
            if (cp < 0x80 && prev < 0x80) {
                if (!g4_tok_ascii_join(ascii, prev, cp)) break;
                p++;
            } else {
                n = g4_utf8_decode(text + p, len - p, &cp);
                if (n == 0) break;
                if (cp == 0x2581) cp = ' ';
                if (cp >= 0x80 || prev >= 0x80) {
                    if (!g4_tok_may_join(t, prev, cp)) break;
                } else if (!g4_tok_ascii_join(ascii, prev, cp)) {
                    break; /* U+2581 became a space */
                }
                p += n;
            }
            prev = cp;
        }
        if (!g4_tok_encode_word(e, text + start, p - start, len - start)) return 0;
    }
    return 1;
}

g4_status g4_tokenizer_encode(const g4_tokenizer *t, const g4_allocator *a, const char *text, size_t len, int specials,
                              g4_tokens *out, g4_halt *halt, g4_error *err)
{
    const size_t before = out->n;
    const uint8_t *bytes = (const uint8_t *)text, *first = t->first;
    const int kinds = specials ? G4_TOK_KIND_CONTROL | G4_TOK_KIND_ALWAYS : G4_TOK_KIND_ALWAYS;
    g4_tok_encoder e = { .t = t, .a = a, .out = out, .cache_bits = 5, .halt = halt };
    if (len == 0) return G4_OK;
    /* The cache takes half the size of the text, and no more than a second-level cache holds. */
    while (e.cache_bits < 14 && sizeof *e.cache << (e.cache_bits + 2) <= len) e.cache_bits++;
    e.cache = g4_alloc(a, (size_t)1 << e.cache_bits, sizeof *e.cache);
    int ok = e.cache != NULL && g4_tok_reserve(&e, len / 4 + 16);
    size_t start = 0, p = 0;
    while (ok && p < len) {
        uint32_t id = 0;
        size_t n = 0;
        if ((first[bytes[p]] & kinds) && (n = g4_tok_match(t, bytes + p, len - p, kinds, 0, &id)) > 0) {
            ok = !g4_tok_halted(&e) && g4_tok_encode_span(&e, bytes + start, p - start) && g4_tok_reserve(&e, 1);
            if (ok) out->ids[out->n++] = (g4_token)id;
            p += n;
            start = p;
        } else if (++p % G4_TOK_STRIDE == 0) {
            ok = !g4_halted(halt);
        }
    }
    ok = ok && g4_tok_encode_span(&e, bytes + start, len - start);
    g4_free(a, e.cache);
    g4_free(a, e.symbols);
    g4_free(a, e.heap);
    if (ok && !g4_halted(halt)) return G4_OK;
    out->n = before;
    const g4_status status = g4_halt_check(halt, err);
    return status ? status : g4_fail(err, G4_ERR_MEMORY, "tokenizer: out of memory for a text of %zu bytes", len);
}

g4_token g4_tokenizer_special(const g4_tokenizer *t, const char *name, size_t len)
{
    uint32_t id = 0;
    if (len == 0 || g4_tok_match(t, (const uint8_t *)name, len, G4_TOK_KIND_CONTROL, 1, &id) != len) return -1;
    return (g4_token)id;
}

/* ---- 5. Ids to text -------------------------------------------------------------------------------- */

size_t g4_tokenizer_piece(const g4_tokenizer *t, g4_token id, char *out, int *special)
{
    *special = 0;
    if (id < 0 || (uint32_t)id >= t->n_vocab) return 0;
    *special = (int)(t->control[id / 32] >> (id % 32) & 1);
    const uint32_t from = t->offsets[id], to = t->offsets[id + 1];
    if (from > to || to > t->strings_size || to - from > G4_TOK_MAX_PIECE) return 0;
    memcpy(out, t->strings + from, to - from);
    return to - from;
}

const uint8_t *g4_tokenizer_text(const g4_tokenizer *t, uint32_t id, uint32_t *len)
{
    const uint32_t from = t->offsets[id], to = t->offsets[id + 1];
    const int is_control = (int)(t->control[id / 32] >> (id % 32) & 1);
    *len = 0;
    if (is_control || from > to || to > t->strings_size || to - from > G4_TOK_MAX_PIECE) return t->strings;
    *len = to - from;
    return t->strings + from;
}

g4_token_kind g4_tokenizer_kind(const g4_tokenizer *t, g4_token id)
{
    static const char unused[] = "<unused"; /* and a number, > */
    char piece[G4_TOK_MAX_PIECE + 1];
    int special;
    const size_t n = g4_tokenizer_piece(t, id, piece, &special);
    if (n == 0 || (n >= sizeof unused && memcmp(piece, unused, sizeof unused - 1) == 0)) return G4_TOKEN_UNUSED;
    if (special) return G4_TOKEN_CONTROL;
    return n == 1 && t->bytes[(uint8_t)piece[0]] == (uint32_t)id ? G4_TOKEN_BYTE : G4_TOKEN_TEXT;
}
