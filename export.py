#!/usr/bin/env python3
"""Convert a Gemma 4 checkpoint (Hugging Face folder, GGUF or hub id) to the flat model file of gemma4.c."""

import struct

import numpy as np

# ---- Numbers: block formats and layouts ----------------------------------------------------------

# ---- Tokenizer blob -------------------------------------------------------------------------------
#
# tokenizer.c documents the blob field by field; this section builds it. Everything the encoder needs stands ready: the
# merges as a perfect hash of (left id, right id), code point -> id, the adjacent characters that some merge spans (between
# any others a text may be cut exactly), and a trie of the tokens that are matched in the text itself.

TOKENIZER_MAGIC = b"G4TOKENS"
TOKENIZER_VERSION = 1
TOKENIZER_NONE = 0xFFFFFFFF
TOKENIZER_MAX_PIECE = 255
SPACE = "\u2581"  # what a vocabulary writes for a space

GGUF_NORMAL, GGUF_UNKNOWN, GGUF_CONTROL, GGUF_USER, GGUF_UNUSED = 1, 2, 3, 4, 5  # token types; 6 is a byte token


def tokenizer_blob(source, n_vocab=None):
    """The tokenizer section of a model file. Returns (blob: bytes, specials: dict of control token name -> id).

    source   a parsed tokenizer.json (dict with "model"), or GGUF metadata as a flat dict of plain Python values
             (dict with "tokenizer.ggml.tokens"; lists, strings, numbers; general.architecture if known)
    n_vocab  rows of the embedding; ids without a token get empty text. None: the highest id + 1.
    Raises ValueError for anything the engine could not reproduce exactly.
    """
    if "tokenizer.ggml.tokens" in source:
        texts, ranked, control, always, n_bytes, add_bos = _tokenizer_from_gguf(source)
    elif "model" in source:
        texts, ranked, control, always, n_bytes, add_bos = _tokenizer_from_json(source)
    else:
        raise ValueError("tokenizer: neither a tokenizer.json nor GGUF metadata with tokenizer.ggml.tokens")
    highest = max(texts, default=-1) + 1
    n_vocab = highest if n_vocab is None else n_vocab
    if not 0 < highest <= n_vocab < 1 << 20:
        raise ValueError(f"tokenizer: {highest} token ids do not fit a vocabulary of {n_vocab}")
    return _tokenizer_pack(texts, ranked, control, always, n_bytes, add_bos, n_vocab), {texts[i]: i for i in sorted(control)}


def _tokenizer_from_json(source):
    """A Hugging Face tokenizer.json -> id -> text, merges in order, control ids, always-matched ids, byte ids, add_bos."""
    model = source["model"]

    def need(ok, what):
        if not ok:
            raise ValueError(f"tokenizer.json: {what}")

    need(model.get("type", "BPE") == "BPE", f"model type {model.get('type')!r}, only BPE is supported")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        need(not model.get(key), f"model.{key} = {model.get(key)!r} is not supported")
    need(model.get("byte_fallback"), "model.byte_fallback must be true")
    normalizer = source.get("normalizer") or {}
    if normalizer.get("type") == "Sequence" and len(normalizer["normalizers"]) == 1:
        normalizer = normalizer["normalizers"][0]
    need(normalizer.get("type") == "Replace" and normalizer.get("pattern") == {"String": " "} and normalizer.get("content") == SPACE,
         "the normalizer must only replace a space by U+2581")
    # Splitting at " " never finds one, as the normalizer has replaced them all; any other pre-tokenizer would change ids.
    split = source.get("pre_tokenizer")
    need(split is None or (split.get("type") == "Split" and split.get("pattern") == {"String": " "}), "pre_tokenizer is not supported")

    vocab = dict(model["vocab"])
    texts = {i: text for text, i in vocab.items()}
    need(len(texts) == len(vocab), "two tokens of the vocabulary share an id")
    control, always = set(), set()
    for token in source.get("added_tokens") or []:
        text, i = token["content"], token["id"]
        need(text and not any(token.get(k) for k in ("lstrip", "rstrip", "single_word")), f"added token {text!r}: unsupported stripping")
        need(not token.get("normalized") or not (" " in text or SPACE in text), f"added token {text!r}: normalized, with a space")
        need(texts.get(i, text) == text and vocab.get(text, i) == i, f"added token {text!r}: id {i} contradicts the vocabulary")
        texts[i], vocab[text] = text, i
        (control if token.get("special") else always).add(i)

    pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    byte_ids = [vocab.get(f"<0x{b:02X}>") for b in range(256)]
    # bos comes from the template of the chat or from the caller; the file says only that this family begins with one.
    return texts, _tokenizer_pair_ids(pairs, vocab), control, always, byte_ids, True


def _tokenizer_from_gguf(source):
    """GGUF metadata -> the same. Gemma 4 files list merges; Gemma 3 files (SentencePiece BPE) list scores.

    Gemma 3 differs from Gemma 4 in what is matched in the text itself, whoever wrote it: besides control tokens it has
    user-defined ones (HTML tags, runs of line feeds and tabs, [multimodal], the image markers), each cut out before BPE, the
    longest at the leftmost place. Runs of 2 to 31 spaces are user-defined too; they are reached by merges ahead of all others,
    longest left part first, which gives what cutting them out gives and treats a literal U+2581 as a space, as Gemma 4 does.
    (transformers' GGUF loader ranks all merges by id instead: it cuts 32 spaces into 16 + 16, SentencePiece into 31 + 1. We
    follow SentencePiece.) In a Gemma 4 file, user-defined marks only which markers stay visible: all are control tokens.
    """
    tokens = list(source["tokenizer.ggml.tokens"])
    kinds = list(source.get("tokenizer.ggml.token_type") or [])
    model = source.get("tokenizer.ggml.model")
    if len(kinds) != len(tokens):
        raise ValueError(f"tokenizer: {len(tokens)} tokens but {len(kinds)} token types")
    if source.get("tokenizer.ggml.add_space_prefix"):
        raise ValueError("tokenizer: add_space_prefix is not supported")
    spaces = [i for i, t in enumerate(tokens) if kinds[i] == GGUF_USER and len(t) > 1 and not t.strip(" ")] if model == "llama" else []
    for i in spaces:
        tokens[i] = SPACE * len(tokens[i])
    vocab = {text: i for i, text in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise ValueError("tokenizer: two tokens have the same text")
    control = {i for i, k in enumerate(kinds) if k in (GGUF_CONTROL, GGUF_UNKNOWN)}
    always = {i for i, k in enumerate(kinds) if k == GGUF_USER} - set(spaces)
    byte_ids = [vocab.get(f"<0x{b:02X}>") for b in range(256)]
    if model == "gemma4":
        pairs = [m.split(" ") for m in source["tokenizer.ggml.merges"]]
        ranked, control, always = _tokenizer_pair_ids(pairs, vocab), control | always, set()
    elif model == "llama":
        scores = list(source["tokenizer.ggml.scores"])
        if len(scores) != len(tokens):
            raise ValueError(f"tokenizer: {len(tokens)} tokens but {len(scores)} scores")
        ranked = _tokenizer_pairs_from_scores(tokens, kinds, vocab, scores, set(spaces))
    else:
        raise ValueError(f"tokenizer: tokenizer.ggml.model is {model!r}; gemma4 and llama (Gemma 3) are supported")
    return dict(enumerate(tokens)), ranked, control, always, byte_ids, bool(source.get("tokenizer.ggml.add_bos_token", True))


def _tokenizer_pair_ids(pairs, vocab):
    """Merges as text -> (n, 3) left, right, joined ids in order of rank."""
    try:
        return np.array([(vocab[l], vocab[r], vocab[l + r]) for l, r in pairs], dtype=np.int64).reshape(-1, 3)
    except KeyError as e:
        raise ValueError(f"tokenizer: a merge uses {e.args[0]!r}, which is not in the vocabulary") from None
    except ValueError:
        raise ValueError("tokenizer: a merge is not a pair of texts") from None


def _tokenizer_pairs_from_scores(tokens, kinds, vocab, scores, spaces):
    """Every (left, right) whose join is a token; best score first, then the longer left part, then the longer right part,
    then by ids: the order in which Hugging Face writes the merges of a SentencePiece model."""
    normal = {t: i for t, i in vocab.items() if kinds[i] in (GGUF_NORMAL, GGUF_UNUSED) or i in spaces}
    found = []
    for text, i in normal.items():
        score = 1.0 if i in spaces else scores[i]  # any number above the others, which are at most 0
        local = []
        for cut in range(1, len(text)):
            l, r = normal.get(text[:cut]), normal.get(text[cut:])
            if l is not None and r is not None:
                local.append((-score, -cut, cut - len(text), l, r, i))
        found += sorted(local, key=lambda x: x[3:5])
    found.sort(key=lambda x: x[:3])
    return np.array([x[3:] for x in found], dtype=np.int64).reshape(-1, 3)


def _tokenizer_mix(key):
    """64-bit mix of a merge key, as g4_tok_find in tokenizer.c."""
    x = key * np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(32)
    x *= np.uint64(0xD6E8FEB86659FD93)
    return x ^ (x >> np.uint64(29))


def _tokenizer_perfect_hash(keys):
    """(displacement of each bucket, slot of each key, number of slots): no two keys share a slot.

    Buckets of about four keys, the fullest first; each tries displacements until all its keys fall on free slots. All buckets of
    one size try together, and of those that want the same slot one wins.
    """
    n = len(keys)
    n_slots, n_buckets = n + n // 16 + 1, n // 4 + 1
    mixed = _tokenizer_mix(keys)
    bucket = ((mixed & np.uint64(0xFFFFFFFF)) * np.uint64(n_buckets)) >> np.uint64(32)
    high = (mixed >> np.uint64(32)).astype(np.uint32)
    order = np.argsort(bucket, kind="stable")
    counts = np.bincount(bucket.astype(np.int64), minlength=n_buckets)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    displacement = np.zeros(n_buckets, np.uint16)
    slot = np.zeros(n, np.int64)
    taken = np.zeros(n_slots, bool)
    owner = np.full(n_slots, -1, np.int64)
    for size in range(int(counts.max(initial=0)), 0, -1):
        left = np.flatnonzero(counts == size)
        for d in range(0x10000):
            if not len(left):
                break
            members = order[starts[left][:, None] + np.arange(size)]
            h = (high[members] ^ np.uint32(d * 0x85EBCA6B & 0xFFFFFFFF)) * np.uint32(0x9E3779B1)
            at = ((h.astype(np.uint64) * np.uint64(n_slots)) >> np.uint64(32)).astype(np.int64)
            ok = ~taken[at].any(axis=1)
            if size > 1:
                ok &= (np.diff(np.sort(at, axis=1), axis=1) > 0).all(axis=1)
            ids = np.flatnonzero(ok)
            owner[at[ids].ravel()] = np.repeat(ids, size)
            ids = ids[(owner[at[ids]] == ids[:, None]).all(axis=1)]
            taken[at[ids]] = True
            slot[members[ids]] = at[ids]
            displacement[left[ids]] = d
            keep = np.ones(len(left), bool)
            keep[ids] = False
            left = left[keep]
        if len(left):
            raise ValueError("tokenizer: no perfect hash found for the merges")
    return displacement, slot, n_slots


def _tokenizer_trie(entries):
    """Tokens matched in text, [(bytes, id, always)] -> nodes in breadth-first order, children of a node adjacent and sorted."""
    children, ends = [{}], [(TOKENIZER_NONE, 0)]
    for data, i, always in entries:
        node = 0
        for b in data:
            if b not in children[node]:
                children[node][b] = len(children)
                children.append({})
                ends.append((TOKENIZER_NONE, 0))
            node = children[node][b]
        ends[node] = (i, 2 if always else 1)
    nodes = np.zeros(len(children), np.dtype([("first", "<u4"), ("id", "<u4"), ("n", "<u2"), ("byte", "u1"), ("kind", "u1")]))
    queue = [(0, 0)]
    for place, (node, byte) in enumerate(queue):  # grows while it is read
        nodes[place] = (len(queue) if children[node] else 0, ends[node][0], len(children[node]), byte, ends[node][1])
        queue += [(child, b) for b, child in sorted(children[node].items())]
    return nodes


def _tokenizer_pack(texts, ranked, control, always, byte_ids, add_bos, n_vocab):
    """The blob. texts: id -> text; ranked: (n, 3) ids by rank; byte_ids: 256 ids."""
    missing = [b for b, i in enumerate(byte_ids) if i is None]
    if missing:
        raise ValueError(f"tokenizer: the vocabulary has no byte token <0x{missing[0]:02X}>")
    byte_set = set(byte_ids)

    # What a token writes when decoded: a control token its name, a byte token that byte, any other its text with spaces.
    pieces = [b""] * n_vocab
    for i, text in texts.items():
        pieces[i] = text.encode() if i in control or i in always else text.replace(SPACE, " ").encode()
    for b, i in enumerate(byte_ids):
        pieces[i] = bytes([b])
    longest = max(range(n_vocab), key=lambda i: len(pieces[i]))
    if len(pieces[longest]) > TOKENIZER_MAX_PIECE:
        raise ValueError(f"tokenizer: token {longest} has {len(pieces[longest])} bytes, more than {TOKENIZER_MAX_PIECE}")
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in pieces])]).astype("<u4")
    is_control = np.zeros((n_vocab + 31) // 32 * 32, np.uint8)
    is_control[sorted(control)] = 1

    # Code point -> id by pages of 64. A byte token or a token that is only matched as a whole is no character.
    chars = {ord(t): i for i, t in texts.items() if len(t) == 1 and i not in byte_set and i not in control and i not in always}
    pages = np.zeros(0x110000 >> 6, "<u2")
    numbers = {page: n + 1 for n, page in enumerate(sorted({c >> 6 for c in chars}))}  # page 0 is empty
    table = np.full((len(numbers) + 1, 64), TOKENIZER_NONE, "<u4")
    for page, n in numbers.items():
        pages[page] = n
    for c, i in chars.items():
        table[numbers[c >> 6], c & 63] = i
    if 0x2581 in chars:  # a space reads as U+2581
        if 0 not in numbers:
            raise ValueError("tokenizer: the vocabulary has no ASCII characters")
        table[numbers[0], 0x20] = chars[0x2581]

    # Merges. Of a pair listed twice the later counts, as in the reference. None may touch a byte token or a whole-only token.
    if len(ranked) >= (1 << 24) - 1:
        raise ValueError(f"tokenizer: {len(ranked)} merges are too many")
    rank = np.arange(len(ranked), dtype=np.uint64)
    whole = np.zeros(n_vocab, bool)
    whole[sorted(byte_set)] = True
    if len(ranked) and whole[ranked].any():
        raise ValueError(f"tokenizer: merge {int(np.flatnonzero(whole[ranked].any(axis=1))[0])} touches a byte token")
    key = (ranked[:, 0].astype(np.uint64) << np.uint64(20)) | ranked[:, 1].astype(np.uint64)
    last = len(key) - 1 - np.unique(key[::-1], return_index=True)[1]
    displacement, slot, n_slots = _tokenizer_perfect_hash(key[last])
    slots = np.full(n_slots, 0xFFFFFFFFFFFFFFFF, np.uint64)
    slots[slot] = (key[last] << np.uint64(24)) | rank[last]

    # Adjacent characters inside any joined token. ASCII pairs exactly, others as bits of a hash; U+2581 stands as a space.
    joined = "\0".join(texts[i] for i in np.unique(ranked[:, 2]).tolist() if "\0" not in texts[i]).replace(SPACE, " ")
    points = np.frombuffer(joined.encode("utf-32-le"), "<u4")
    a, b = points[:-1], points[1:]
    inside = (a != 0) & (b != 0)
    both = np.unique((a[inside].astype(np.uint64) << np.uint64(32)) | b[inside])
    a, b = (both >> np.uint64(32)).astype(np.uint32), both.astype(np.uint32)
    ascii_pairs = np.zeros((128, 128), np.uint8)
    small = (a < 128) & (b < 128)
    ascii_pairs[a[small], b[small]] = 1
    if any("\0" in texts[i] for i in np.unique(ranked[:, 2]).tolist()):
        ascii_pairs[0, :] = ascii_pairs[:, 0] = 1  # only costs speed
    bits = max(10, int(8 * (~small).sum()).bit_length())
    h = a[~small] * np.uint32(0x9E3779B1) + b[~small] * np.uint32(0x85EBCA6B)
    h = ((h ^ (h >> np.uint32(15))) * np.uint32(0xC2B2AE35)) >> np.uint32(32 - bits)
    pair_bits = np.zeros(1 << bits, np.uint8)
    pair_bits[h] = 1

    nodes = _tokenizer_trie([(texts[i].encode(), i, i in always) for i in sorted(control | always)])
    first = np.zeros(256, np.uint8)  # bit 0: a control token begins so, bit 1: a token that is always matched does
    for i in control | always:
        first[texts[i].encode()[0]] |= 2 if i in always else 1

    pack = lambda x: np.packbits(x, bitorder="little").tobytes()
    parts = [offsets.tobytes(), b"".join(pieces), pack(is_control), pages.tobytes(), table.tobytes(),
             np.array(byte_ids, "<u4").tobytes(), displacement.astype("<u2").tobytes(), slots.astype("<u8").tobytes(),
             ranked[:, 2].astype("<u4").tobytes(), pack(ascii_pairs.ravel()), pack(pair_bits), nodes.tobytes(), first.tobytes()]
    header_size = 16 + 4 * 12 + 8 * len(parts)
    at = header_size = (header_size + 63) // 64 * 64
    where, body = [], b""
    for part in parts:
        where.append((at, len(part)))
        padding = -len(part) % 64
        body += part + bytes(padding)
        at += len(part) + padding
    depth = max((len(texts[i].encode()) for i in control | always), default=0)
    header = struct.pack("<8sII12I", TOKENIZER_MAGIC, TOKENIZER_VERSION, at, n_vocab, 1 if add_bos else 0, len(ranked), n_slots,
                         len(displacement), len(table), bits, len(nodes), depth, len(parts), 0, 0)
    header += b"".join(struct.pack("<II", *w) for w in where)
    return header + bytes(header_size - len(header)) + body

# ---- Sources: safetensors, GGUF, hub --------------------------------------------------------------

# ---- Text decoder ---------------------------------------------------------------------------------

# ---- Vision and audio towers ----------------------------------------------------------------------

# ---- The model file ------------------------------------------------------------------------------

# ---- Command line ---------------------------------------------------------------------------------
