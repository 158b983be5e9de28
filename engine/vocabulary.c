/* vocabulary.c - the tokens that are text, in the order of their bytes and as trees: what grammars hold their texts
 * against. It is made from the tokenizer when the first grammar asks, once an engine, and shared by all its grammars.
 * Two trees hold every token once: those made of nothing but characters that stand in a JSON string as they are, and
 * the rest. Of the first there are also the sets of at most so many characters, since most of what grammars allow are
 * strings. What a grammar found out that holds for all grammars is kept here too, until there is no more room for it.
 * */
#ifndef GEMMA4_IMPLEMENTED
#define GEMMA4_IMPLEMENTED
#endif
#include "parts.h"

#include <stdlib.h>
#include <string.h>

#define G4_MAX_VOCABULARY_BYTES (1u << 24) /* of all tokens together; below 2^24 nodes */
#define G4_MAX_FINDINGS_BYTES (32u << 20)  /* of what grammars found out */
#define G4_FEW_PLAIN 7                     /* plain tokens below a node that are faster read one by one */
#define G4_SORT_STRIDE 4096                /* words between two questions whether the call must end */

/* ---- Words in order ------------------------------------------------------------------------------ */

/* The first eight bytes of a word, the first on top, so that most comparisons need no more. */
static uint64_t g4_word_key(const uint8_t *text, uint32_t len)
{
    uint64_t key = 0;
    for (uint32_t i = 0; i < 8; i++) key = key << 8 | (i < len ? text[i] : 0u);
    return key;
}

static int g4_word_compare(const void *pa, const void *pb)
{
    const g4_word *a = pa, *b = pb;
    if (a->key != b->key) return a->key < b->key ? -1 : 1;
    const int c = g4_bytes_compare(a->text, a->len, b->text, b->len);
    return c != 0 ? c : (a->id > b->id) - (a->id < b->id);
}

/* Sort by one byte of the key; stable. Returns 0, and leaves `to` alone, when it is the same in all. */
static int g4_words_sort_byte(const g4_word *from, g4_word *to, uint32_t n, int shift)
{
    uint32_t place[256] = { 0 };
    for (uint32_t i = 0; i < n; i++) place[from[i].key >> shift & 255]++;
    if (place[from[0].key >> shift & 255] == n) return 0;
    for (uint32_t b = 0, sum = 0; b < 256; b++) {
        const uint32_t count = place[b];
        place[b] = sum;
        sum += count;
    }
    for (uint32_t i = 0; i < n; i++) to[place[from[i].key >> shift & 255]++] = from[i];
    return 1;
}

int g4_words_sort(const g4_allocator *a, g4_word *words, uint32_t n, g4_halt *halt)
{
    if (n < 2) return 1;
    for (uint32_t i = 0; i < n; i++) words[i].key = g4_word_key(words[i].text, words[i].len);
    if (n <= 64) {
        qsort(words, n, sizeof *words, g4_word_compare);
        return 1;
    }
    g4_word *spare = g4_alloc(a, n, sizeof *spare), *from = words, *to = spare;
    if (spare == NULL) return 0;
    for (int shift = 0; shift < 64 && !g4_halted(halt); shift += 8) {
        if (!g4_words_sort_byte(from, to, n, shift)) continue;
        g4_word *swapped = from;
        from = to;
        to = swapped;
    }
    if (from != words) memcpy(words, from, n * sizeof *words);
    g4_free(a, spare);
    for (uint32_t i = 0, end; i < n && !g4_halted(halt); i = end) { /* words that begin with the same eight bytes */
        for (end = i + 1; end < n && words[end].key == words[i].key; end++) {
        }
        if (end - i > 1) qsort(words + i, end - i, sizeof *words, g4_word_compare);
    }
    return !g4_halted(halt);
}

/* ---- Trees --------------------------------------------------------------------------------------- */

/* A child behind those that are there. The n words of it begin with the same `depth` bytes; what follows in few of them
 * becomes their tails. */
static void g4_trie_add_child(g4_trie *t, const g4_word *words, uint32_t first, uint32_t n, uint32_t depth,
                              uint32_t few)
{
    g4_trie_node *child = &t->nodes[t->n_nodes];
    *child = (g4_trie_node) { .first = first, .end = first + n };
    t->bytes[t->n_nodes++] = words[first].text[depth - 1];
    if (n > few || (n == 1 && words[first].len == depth)) return;
    child->child = t->n_tails;
    child->has_tails = 1;
    for (const g4_word *w = words + first; w < words + first + n; w++) {
        t->tails[t->n_tails++] = (uint8_t)(w->len - depth);
        memcpy(t->tails + t->n_tails, w->text + depth, w->len - depth);
        t->n_tails += w->len - depth;
    }
}

/* The children of a node behind those that are there; the words of the node begin with the same `depth` bytes. */
static void g4_trie_add_children(g4_trie *t, const g4_word *words, uint32_t node, uint32_t depth, uint32_t few)
{
    uint32_t i = t->nodes[node].first, end = t->nodes[node].end;
    while (i < end && words[i].len == depth) i++;
    t->nodes[node].child = t->n_nodes;
    while (i < end) {
        const uint8_t byte = words[i].text[depth];
        const uint32_t first = i;
        while (i < end && words[i].text[depth] == byte) i++;
        g4_trie_add_child(t, words, first, i - first, depth + 1, few);
        t->nodes[node].n_children++;
    }
}

static uint32_t g4_words_shared(const g4_word *v, const g4_word *w)
{
    uint32_t n = 0;
    while (n < v->len && n < w->len && v->text[n] == w->text[n]) n++;
    return n;
}

/* As much as a tree may have: a node for each byte that is not shared with the word before, up to where no other word
 * shares it, and the root; tails with their lengths. Where tails are of single words there are as many nodes. */
static void g4_trie_count(const g4_word *words, uint32_t n, uint32_t few, uint32_t *n_nodes, uint32_t *n_tails)
{
    uint32_t before = 0;
    *n_nodes = 1;
    *n_tails = n;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t behind = i + 1 < n ? g4_words_shared(&words[i], &words[i + 1]) : 0;
        const uint32_t shared = before > behind ? before : behind;
        const uint32_t last = shared < words[i].len ? shared + 1 : words[i].len;
        *n_nodes += last - before;
        *n_tails += few > 1 ? words[i].len : words[i].len - last;
        before = behind;
    }
}

/* Give back what a tree did not need. */
static int g4_trie_shrink(g4_trie *t, const g4_allocator *a)
{
    g4_trie_node *nodes = g4_realloc(a, t->nodes, t->n_nodes, sizeof *nodes);
    if (nodes != NULL) t->nodes = nodes;
    uint8_t *bytes = g4_realloc(a, t->bytes, t->n_nodes, 1);
    if (bytes != NULL) t->bytes = bytes;
    uint8_t *tails = g4_realloc(a, t->tails, (size_t)t->n_tails + 1, 1);
    if (tails != NULL) t->tails = tails;
    return nodes != NULL && bytes != NULL && tails != NULL;
}

int g4_trie_make(g4_trie *t, const g4_allocator *a, const g4_word *words, uint32_t n, uint32_t few, g4_halt *halt)
{
    g4_trie_level levels[G4_TRIE_DEPTH];
    uint32_t n_nodes, n_tails;
    g4_trie_count(words, n, few, &n_nodes, &n_tails);
    *t = (g4_trie) { .nodes = g4_alloc(a, n_nodes, sizeof *t->nodes),
                     .bytes = g4_alloc(a, n_nodes, 1),
                     .tails = g4_alloc(a, (size_t)n_tails + 1, 1),
                     .ids = g4_alloc(a, (size_t)n + 1, sizeof *t->ids) };
    if (t->nodes == NULL || t->bytes == NULL || t->tails == NULL || t->ids == NULL) {
        g4_trie_free(t, a);
        return 0;
    }
    for (uint32_t i = 0; i < n; i++) t->ids[i] = words[i].id;
    t->nodes[0] = (g4_trie_node) { .end = n };
    t->n_nodes = 1;
    g4_trie_add_children(t, words, 0, 0, few);
    levels[0] = g4_trie_below(t, 0);
    for (uint32_t depth = 1; depth > 0;) { /* depth first, so that what a walk visits stands together */
        g4_trie_level *level = &levels[depth - 1];
        if (level->next == level->end || g4_halted(halt)) {
            depth--;
            continue;
        }
        const uint32_t node = level->next++;
        if (t->nodes[node].has_tails) continue;
        g4_trie_add_children(t, words, node, depth, few);
        if (t->nodes[node].n_children > 0) levels[depth++] = g4_trie_below(t, node);
    }
    return !g4_halted(halt) && (few == 1 || g4_trie_shrink(t, a));
}

void g4_trie_free(g4_trie *t, const g4_allocator *a)
{
    g4_free(a, t->nodes);
    g4_free(a, t->bytes);
    g4_free(a, t->tails);
    g4_free(a, t->ids);
    *t = (g4_trie) { 0 };
}

/* Sorts are what expressions tend to tell apart, in the order of how many tokens have one of them: letters, groups of
 * scripts by their first byte, digits, marks, and what has blanks among it. */
static void g4_vocabulary_sort_chars(g4_vocabulary *v)
{
    static const struct {
        uint8_t low, high;
    } sorts[] = { { ' ', ' ' },   { 'e', 'e' },   { 'a', 'a' },   { 'n', 'n' },   { 'i', 'i' },   { 'r', 'r' },
                  { 's', 's' },   { 't', 't' },   { 'o', 'o' },   { 'l', 'l' },   { 'u', 'u' },   { 'd', 'd' },
                  { 'c', 'c' },   { 'm', 'm' },   { 'p', 'p' },   { 'g', 'g' },   { 'h', 'h' },   { 'b', 'b' },
                  { 'y', 'y' },   { 'v', 'v' },   { 'k', 'k' },   { 'f', 'f' },   { 'w', 'w' },   { 'z', 'z' },
                  { 'x', 'x' },   { 'j', 'j' },   { 'q', 'q' },   { 'A', 'C' },   { 'S', 'U' },   { 'D', 'F' },
                  { 'M', 'O' },   { 'P', 'R' },   { 'G', 'I' },   { 'J', 'L' },   { 'V', 'Z' },   { 0xe0, 0xe0 },
                  { 0xe5, 0xe8 }, { 0xd0, 0xd1 }, { 0xd8, 0xdf }, { 0xc3, 0xc3 }, { 0xeb, 0xec }, { 0xe3, 0xe3 },
                  { 0xe1, 0xe1 }, { 0xc4, 0xc9 }, { 0xe4, 0xe4 }, { 0xe9, 0xe9 }, { 0xea, 0xea }, { 0xce, 0xcf },
                  { '0', '9' },   { 0xf0, 0xf4 }, { '.', '.' },   { '/', '/' },   { '-', '-' },   { ':', ':' },
                  { '_', '_' },   { ',', ',' },   { '@', '@' },   { 0xe2, 0xe2 }, { 0xd2, 0xd7 }, { 0xed, 0xed },
                  { 0xca, 0xcd }, { 0xee, 0xef }, { 0xc2, 0xc2 } };
    const int n = sizeof sorts / sizeof sorts[0]; /* other marks are one more */
    for (int b = 0x20; b < 0x80; b++) v->sort_of[b] = b != '"' && b != '\\' ? (g4_sorts)1 << n : 0;
    for (int i = 0; i < n; i++)
        for (int b = sorts[i].low; b <= sorts[i].high; b++) v->sort_of[b] = (g4_sorts)1 << i;
}

/* What the words of a node go on with: a byte, behind which come these characters. */
static void g4_trie_describe_byte(g4_trie_node *n, g4_sorts sort, g4_sorts sorts, int n_chars)
{
    n->sorts |= sort | sorts;
    n->n_chars = (unsigned)g4_max_int(n->n_chars, g4_min_int(n_chars + (sort != 0), UINT8_MAX)) & 0xff;
    if (sort == 0) n->is_whole = 0;
}

/* The same of a tail. Returns its sorts. */
static g4_sorts g4_trie_describe_tail(g4_trie_node *n, const uint8_t *tail, uint32_t len, const g4_sorts sort_of[256])
{
    g4_trie_node all = { 0 };
    for (uint32_t k = len; k-- > 1;) g4_trie_describe_byte(&all, sort_of[tail[k]], all.sorts, all.n_chars);
    if (len > 0) g4_trie_describe_byte(n, sort_of[tail[0]], all.sorts, all.n_chars);
    return len > 0 ? all.sorts | sort_of[tail[0]] : 0;
}

/* Say of each node of a tree of plain characters what is below it, and of each word behind a tail of which sorts that
 * is. Children have higher numbers. */
static void g4_trie_describe(g4_trie *t, const g4_sorts sort_of[256], g4_sorts *word_sorts)
{
    t->is_plain = 1;
    for (uint32_t i = t->n_nodes; i-- > 0;) {
        const g4_trie_level below = g4_trie_below(t, i);
        g4_trie_node *n = &t->nodes[i];
        n->is_whole = 1;
        for (uint32_t k = below.next; k < below.end; k++)
            g4_trie_describe_byte(n, sort_of[t->bytes[k]], t->nodes[k].sorts, t->nodes[k].n_chars);
        const uint8_t *tail = t->tails + (n->has_tails ? n->child : 0);
        for (uint32_t w = n->first; w < n->end && n->has_tails; w++, tail += 1 + *tail)
            word_sorts[w] = g4_trie_describe_tail(n, tail + 1, *tail, sort_of);
    }
}

/* ---- The vocabulary ------------------------------------------------------------------------------ */

/* Is it made of whole characters that stand in a JSON string as they are? *n_chars: of leading bytes. */
static int g4_word_is_plain(const uint8_t *text, size_t len, uint32_t *n_chars)
{
    int is_plain = 1;
    uint32_t cp;
    *n_chars = 0;
    for (size_t i = 0; i < len;) {
        const size_t size = g4_utf8_decode(text + i, len - i, &cp);
        is_plain = is_plain && size > 0 && cp >= 0x20 && cp != '"' && cp != '\\';
        *n_chars += size > 0 || !g4_utf8_continues((char)text[i]);
        i += size > 0 ? size : 1;
    }
    return is_plain;
}

/* The tokens that are text, unsorted: plain ones from the front, the others from the back of `words`. Returns 0 when
 * they are too many bytes, or halted. */
static int g4_vocabulary_collect(g4_vocabulary *v, const g4_tokenizer *t, g4_word *words, uint32_t n[2], g4_halt *halt)
{
    uint64_t bytes = 0;
    n[0] = n[1] = 0;
    for (uint32_t id = 0; id < t->n_vocab; id++) {
        uint32_t n_chars;
        if (id % G4_SORT_STRIDE == 0 && g4_halted(halt)) return 0;
        g4_word w = { .id = id };
        w.text = g4_tokenizer_text(t, id, &w.len);
        bytes += w.len;
        if (w.len == 0) continue;
        const int is_plain = g4_word_is_plain(w.text, w.len, &n_chars);
        w.key = n_chars; /* until they are sorted */
        if (n_chars > v->longest) v->longest = n_chars;
        if (is_plain && n_chars > v->longest_plain) v->longest_plain = n_chars;
        if (is_plain)
            words[n[0]++] = w;
        else
            words[t->n_vocab - ++n[1]] = w;
    }
    return bytes <= G4_MAX_VOCABULARY_BYTES;
}

/* The plain tokens by their number of characters: set i has those of at most i. */
static int g4_vocabulary_count(g4_vocabulary *v, const g4_word *words, uint32_t n)
{
    const size_t size = ((size_t)v->n_vocab + 31) / 32;
    v->plain = g4_alloc(v->a, (size_t)v->longest_plain + 1, size * sizeof *v->plain);
    if (v->plain == NULL) return 0;
    for (uint32_t i = 0; i < n; i++) v->plain[words[i].key * size + words[i].id / 32] |= 1u << (words[i].id % 32);
    for (size_t i = size; i < size * (v->longest_plain + 1); i++) v->plain[i] |= v->plain[i - size];
    return 1;
}

/* The characters of all plain words, in the order of their tree. */
static int g4_vocabulary_count_chars(g4_vocabulary *v, const g4_word *words, uint32_t n)
{
    v->word_chars = g4_alloc(v->a, (size_t)n + 1, 1);
    if (v->word_chars == NULL) return 0;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < words[i].len; k++)
            v->word_chars[i] = (uint8_t)(v->word_chars[i] + !g4_utf8_continues((char)words[i].text[k]));
    return 1;
}

/* Describe the plain tree, and say of what sorts its words are, along the tree. */
static int g4_vocabulary_sort_words(g4_vocabulary *v)
{
    g4_trie *t = &v->tries[G4_TRIE_PLAIN];
    g4_sorts *way = g4_alloc(v->a, t->n_nodes, sizeof *way); /* of the bytes that lead to a node */
    v->word_sorts = g4_alloc(v->a, (size_t)t->nodes[0].end + 1, sizeof *v->word_sorts);
    if (v->word_sorts != NULL) g4_trie_describe(t, v->sort_of, v->word_sorts);
    if (way != NULL && v->word_sorts != NULL)
        for (uint32_t i = 0; i < t->n_nodes; i++) {
            const g4_trie_level below = g4_trie_below(t, i);
            const g4_trie_node n = t->nodes[i];
            for (uint32_t k = below.next; k < below.end; k++) way[k] = way[i] | v->sort_of[t->bytes[k]];
            const uint32_t end = n.has_tails ? n.end : g4_trie_end_here(t, &n);
            for (uint32_t w = n.first; w < end; w++) v->word_sorts[w] |= way[i];
        }
    g4_free(v->a, way);
    return way != NULL && v->word_sorts != NULL;
}

static int g4_vocabulary_fill(g4_vocabulary *v, const g4_tokenizer *t, g4_word *words, g4_halt *halt)
{
    uint32_t n[2];
    if (!g4_vocabulary_collect(v, t, words, n, halt) || !g4_vocabulary_count(v, words, n[0])) return 0;
    for (int i = 0; i < 2; i++) {
        g4_word *part = i == G4_TRIE_PLAIN ? words : words + t->n_vocab - n[1];
        const uint32_t few = i == G4_TRIE_PLAIN ? G4_FEW_PLAIN : 1;
        if (!g4_words_sort(v->a, part, n[i], halt) || !g4_trie_make(&v->tries[i], v->a, part, n[i], few, halt))
            return 0;
    }
    return g4_vocabulary_count_chars(v, words, n[0]) && g4_vocabulary_sort_words(v);
}

static g4_vocabulary *g4_vocabulary_open(const g4_allocator *a, const g4_tokenizer *t, g4_halt *halt)
{
    g4_vocabulary *v = g4_alloc(a, 1, sizeof *v);
    g4_word *words = g4_alloc(a, t->n_vocab, sizeof *words);
    if (v != NULL) {
        v->a = a;
        v->n_vocab = t->n_vocab;
        g4_vocabulary_sort_chars(v);
    }
    if (v != NULL && (words == NULL || !g4_vocabulary_fill(v, t, words, halt))) {
        g4_vocabulary_close(v);
        v = NULL;
    }
    g4_free(a, words);
    return v;
}

void g4_vocabulary_close(g4_vocabulary *v)
{
    if (v == NULL) return;
    for (int i = 0; i < G4_N_FINDINGS; i++)
        for (g4_finding *k = atomic_load(&v->findings[i]), *next; k != NULL; k = next) {
            next = k->next;
            g4_free(v->a, k);
        }
    for (int i = 0; i < 2; i++) g4_trie_free(&v->tries[i], v->a);
    g4_free(v->a, v->plain);
    g4_free(v->a, v->word_sorts);
    g4_free(v->a, v->word_chars);
    g4_free(v->a, v);
}

g4_vocabulary *g4_vocabulary_of(const g4_tokenizer *t, const g4_allocator *a, g4_halt *halt, int *is_own)
{
    g4_vocabulary_home *home = t->home;
    g4_vocabulary *v = home != NULL ? atomic_load(&home->made) : NULL;
    *is_own = home == NULL;
    if (v != NULL) return v;
    v = g4_vocabulary_open(home != NULL ? home->a : a, t, halt);
    if (v == NULL || home == NULL) return v;
    g4_vocabulary *other = NULL; /* of a thread that was faster */
    if (atomic_compare_exchange_strong(&home->made, &other, v)) return v;
    g4_vocabulary_close(v);
    return other;
}

void g4_vocabulary_home_close(g4_vocabulary_home *home)
{
    g4_vocabulary_close(atomic_load(&home->made));
    atomic_store(&home->made, NULL);
}

/* ---- What grammars found out --------------------------------------------------------------------- */

const g4_finding *g4_vocabulary_find(const g4_vocabulary *v, const uint64_t key[2])
{
    const g4_finding *k = atomic_load(&v->findings[key[0] % G4_N_FINDINGS]);
    while (k != NULL && (k->key[0] != key[0] || k->key[1] != key[1])) k = k->next;
    return k;
}

int g4_vocabulary_keep(g4_vocabulary *v, g4_finding *k, size_t bytes)
{
    if (atomic_fetch_add(&v->findings_bytes, bytes) + bytes > G4_MAX_FINDINGS_BYTES) {
        atomic_fetch_sub(&v->findings_bytes, bytes);
        return 0;
    }
    _Atomic(g4_finding *) *place = &v->findings[k->key[0] % G4_N_FINDINGS];
    k->next = atomic_load(place);
    while (!atomic_compare_exchange_weak(place, &k->next, k)) {
    }
    return 1;
}
