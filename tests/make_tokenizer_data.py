#!/usr/bin/env python3
"""Golden data of the tokenizer tests. usage: make_tokenizer_data.py [--out FOLDER] [--tokenizer tokenizer.json[.xz]]

Writes, always the same bytes:
  vocab.g4                    the real Gemma 4 vocabulary as a model file without tensors
  tokenizer_gemma4.bin        texts and their ids, by Hugging Face tokenizers
  tokenizer_small.g4, .bin    a small vocabulary trained here on made-up words, with only some of the family's specials
                              and with tokens that are matched in any text
  tokenizer_spm.g4, .bin      a small SentencePiece vocabulary, as a Gemma 3 GGUF describes one; ids by sentencepiece

A .bin file: u32 number of cases, then each: u32 specials, u32 bytes, u32 ids, the bytes padded to 4, the ids. All
little-endian. Needs numpy, tokenizers, sentencepiece, protobuf; the real vocabulary is taken from --tokenizer, by
default from ../shared.
"""
import argparse
import json
import lzma
import os
import random
import struct
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
import export  # noqa: E402

SENTENCES = """The quick tests of this file are our own; they don't quote anybody. It's 3.14159 or 2,718 or 1e-9.
def f(x):\n    if x > 0:\n\t\treturn "a" * 3  # twice\n    return {'k': [1, 2, 3], "q": None}\n
Zwölf Prüfungen später öffnete sich die Tür; niemand wußte, wie groß der Garten war.
L'été, où les élèves naïfs goûtent des crêpes à côté de l'hôtel, c'est déjà fini.
El niño pequeño soñó con una cigüeña; ¿qué dirá mañana su compañera?
Вчера мы считали буквы и пробелы, а сегодня — слова и знаки.
今天我们写一些简单的句子，看看分词是不是正确。明天再写更长的文章！
東京の朝は静かで、駅までの道に猫が三匹いました。カタカナとひらがなも混ぜます。
오늘은 짧은 문장을 몇 개 써서 토큰이 올바른지 확인합니다.
في الصباح كتبنا جملة قصيرة، ثم عددنا الحروف والكلمات.
सुबह हमने एक छोटा वाक्य लिखा और शब्द गिने।
เช้านี้เราเขียนประโยคสั้น ๆ แล้วนับคำ
Σήμερα γράφουμε μικρές προτάσεις για δοκιμή.
שלום לכולם, היום כותבים משפטים קצרים.
👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 👍🏽 ☃️ 🧪🧫🧬 — emoji, joined and flagged
ﬁ ﬂ ① ½ Å Å é é ｆｕｌｌ　ｗｉｄｔｈ \u200b\u200d\ufeff\u00a0|
https://example.org/a/b?c=d&e=f#g  user@example.org  C:\\Temp\\x.txt  /usr/bin/env
<html><body><table><tr><td> </td></tr></table> <h1>x</h1> > </b> >\u2581</i> >  </u></body></html>
x == y && !z || (a <= b) ? c : d; // -> => ::= <<>> ... ,,, --- === ***
AAAAaaaa 0000111122223333 abcABC123_xyz $100 €50 100% #tag @name""".split("\n")


def well_formed(data):
    """Cut bytes into (text or None, bytes): well-formed stretches, and single bytes outside of them."""
    out, at = [], 0
    while at < len(data):
        try:
            out.append((data[at:].decode(), data[at:]))
            break
        except UnicodeDecodeError as e:
            # e.start is the first byte of an ill-formed sequence; only that byte is known to be outside
            if e.start:
                out.append((data[at:at + e.start].decode(), data[at:at + e.start]))
            out.append((None, data[at + e.start:at + e.start + 1]))
            at += e.start + 1
    return out


def fragments(rng, vocab, specials):
    """A text of vocabulary pieces, random characters, runs and specials, made to cross the borders of tokens."""
    out = ""
    for _ in range(rng.randint(1, 12)):
        kind = rng.random()
        if kind < 0.3:
            out += rng.choice(vocab)
        elif kind < 0.4:
            out += " " + rng.choice(vocab)
        elif kind < 0.5:
            s = rng.choice(vocab)
            out += s[rng.randint(0, len(s)):]
        elif kind < 0.65:
            for _ in range(rng.randint(1, 8)):
                out += rng.choice((chr(rng.randint(32, 126)), chr(rng.randint(1, 0x7FF)),
                                   chr(rng.randint(0x3040, 0x9FFF)), chr(rng.randint(0x1F300, 0x1FAFF)),
                                   rng.choice(" \n\t\r\u2581><")))
        elif kind < 0.8:
            out += rng.choice(" \n\t\u2581ae=-.") * rng.randint(1, 70)
        elif kind < 0.9:
            out += rng.choice(specials)
        else:
            out += rng.choice(("> </", "> <", ">  </", ">\u2581</", "<|turn", "|>", "<<bos>>"))
    return out


def texts(rng, vocab, specials, n):
    """All cases of one vocabulary: bytes."""
    out = [b"", b" ", b"\0", b"\xff", "\u2581".encode(), b"\xe4\xb8", b"\xed\xa0\x80x\xf4\x90\x80\x80"]
    out += ["\ufffd\U0010ffff".encode()]
    out += [s.encode() for s in SENTENCES] + ["\n".join(SENTENCES).encode()]
    out += [s.encode() for s in specials[:40]]
    out += [(c * k).encode() for c in " \n\ta\u4e00" for k in (2, 30, 31, 32, 33, 62, 63, 200)]
    out += [bytes(rng.randrange(256) for _ in range(rng.randint(1, 40))) for _ in range(n // 8)]
    while len(out) < n:
        data = bytearray(fragments(rng, vocab, specials).encode())
        if data and rng.random() < 0.2:  # damage a byte or two
            for _ in range(rng.randint(1, 2)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        out.append(bytes(data))
    return out


def write_cases(path, cases, encode, byte_id):
    """encode(text, specials) gives the ids of well-formed text."""
    with open(path, "wb") as f:
        f.write(struct.pack("<I", 2 * len(cases)))
        for data in cases:
            for specials in (0, 1):
                ids = []
                for text, raw in well_formed(data):
                    ids += encode(text, specials) if text is not None else [byte_id(raw[0])]
                f.write(struct.pack("<III", specials, len(data), len(ids)) + data + bytes(-len(data) % 4))
                f.write(struct.pack(f"<{len(ids)}I", *ids))


def write_vocabulary(path, blob, specials, n_vocab):
    """A model file without tensors: a configuration of no layers, and the tokenizer."""
    config = {"name": "tokenizer only", "n_vocab": n_vocab, "bos": specials["<bos>"], "eos": specials["<eos>"]}
    config |= {"pad": specials.get("<pad>", 0), "unk": specials.get("<unk>", 0)}
    stop = [specials[x] for x in ("<eos>", "<turn|>", "<|tool_response>") if x in specials]
    config |= {"n_stop": len(stop), "stop": stop}
    if "<|tool_response>" in specials:
        config["chat_template"] = 1
        config |= {key: specials[name] for key, name in export.MEDIA_TOKENS.items()}
    export.ModelFile().write(path, config, [], blob, lambda n: None)


def hf_encoder(source):
    from tokenizers import Tokenizer
    hf = Tokenizer.from_str(json.dumps(source))

    def encode(text, specials):
        hf.encode_special_tokens = not specials
        return hf.encode(text, add_special_tokens=False).ids
    return encode


def made_up_corpus(rng):
    """Words of a made-up language in four scripts, so that the small vocabularies owe nobody anything."""
    syllables = [a + b for a in "b d f g k l m n p r s t v z th sh".split() for b in "a e i o u ai ou".split()]
    syllables += [a + b for a in "бгдклмнст" for b in "аеиоу"]
    syllables += list("日月火水木金土人口山川") + list("éüñøß")
    words = ["".join(rng.choice(syllables) for _ in range(rng.randint(1, 4))) for _ in range(900)]
    lines = []
    for _ in range(4000):
        line = " ".join(words[min(int(rng.expovariate(0.01)), len(words) - 1)] for _ in range(rng.randint(3, 12)))
        end = rng.choice((".", "!", "?", ", 42", ": 3.5", "();", " {", " = x > </b>"))
        lines.append(line[0].upper() + line[1:] + end)
    return lines


def small_vocabulary(lines):
    """A tokenizer.json of 3000 ids in Gemma 4's form."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    tok = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tok.normalizer = normalizers.Replace(" ", export.SPACE)
    # Words for training only, so that merges do not run over whole lines; the file itself has none.
    tok.pre_tokenizer = pre_tokenizers.Split(export.SPACE, "merged_with_next")
    names = "<pad> <eos> <bos> <unk> <|turn> <turn|> <|\"|> <|think|> <|image|> <|image> <image|>".split()
    names += [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=3000, special_tokens=names, show_progress=False,
                                  initial_alphabet=list("\n\t" + "".join(map(chr, range(33, 127)))))
    runs = [" " * k + "x" for k in range(2, 17)] + ["\n" * k for k in range(2, 9)]
    tok.train_from_iterator(lines + runs * 40, trainer)
    tok.pre_tokenizer = None
    tok.decoder = decoders.Sequence([decoders.Replace(export.SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    source = json.loads(tok.to_str())
    source["added_tokens"] = [t for t in source["added_tokens"] if not t["content"].startswith("<0x")]
    n = len(source["model"]["vocab"])
    for i, text in enumerate(("<b>", "<box>", "</box>", "\r\n")):  # matched in any text
        source["added_tokens"].append(dict(source["added_tokens"][0], id=n + i, content=text, special=False))
    return source


def sentencepiece_vocabulary(lines, folder):
    """(GGUF metadata, processor) of a SentencePiece BPE model of 2000 ids, with user-defined tokens as in Gemma 3."""
    import sentencepiece as spm
    from sentencepiece import sentencepiece_model_pb2
    user = ["\n" * k for k in range(1, 8)] + [export.SPACE * k for k in range(2, 12)]
    user += ["\t", "<b>", "</b>", "<table>", "[multimodal]"]
    path = os.path.join(folder, "corpus.txt")
    with open(path, "w") as f:
        f.write("\n".join(lines))
    spm.SentencePieceTrainer.train(
        input=path, model_prefix=os.path.join(folder, "m"), model_type="bpe", vocab_size=2000, byte_fallback=True,
        user_defined_symbols=user, control_symbols=["<start_of_turn>", "<end_of_turn>", "<unused0>"],
        pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
        normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True, character_coverage=1.0, num_threads=1, minloglevel=2)
    model = sentencepiece_model_pb2.ModelProto()
    with open(os.path.join(folder, "m.model"), "rb") as f:
        model.ParseFromString(f.read())
    # GGUF types are SentencePiece's; it writes the spaces of user-defined tokens as spaces
    tokens = [p.piece.replace(export.SPACE, " ") if p.type == export.GGUF_USER else p.piece for p in model.pieces]
    meta = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.scores": [p.score for p in model.pieces],
            "tokenizer.ggml.token_type": [p.type for p in model.pieces]}
    return meta, spm.SentencePieceProcessor(model_proto=model.SerializeToString())


def spm_encoder(meta, processor):
    """SentencePiece never sees control tokens in text: cut at them first, the longest at the leftmost place."""
    kinds = meta["tokenizer.ggml.token_type"]
    ids = {t: i for i, t in enumerate(meta["tokenizer.ggml.tokens"]) if kinds[i] in (2, 3)}
    names = sorted(ids, key=len, reverse=True)

    def plain(text):  # sentencepiece stops at a NUL in some versions; that byte is a byte token
        byte = meta["tokenizer.ggml.tokens"].index("<0x00>")
        out = []
        for k, part in enumerate(text.split("\0")):
            out += ([byte] if k else []) + processor.encode(part)
        return out

    def encode(text, specials):
        out, start, at = [], 0, 0
        while specials and at < len(text):
            name = next((x for x in names if text.startswith(x, at)), None)
            if name is None:
                at += 1
                continue
            out += plain(text[start:at]) + [ids[name]]
            at += len(name)
            start = at
        return out + plain(text[start:])
    return encode


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default=os.path.join(ROOT, "tests", "data"))
    parser.add_argument("--tokenizer",
                        default=os.path.join(ROOT, "..", "shared", "gemma4-tokenizer", "tokenizer.json.xz"))
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    out = lambda name: os.path.join(args.out, name)
    lines = made_up_corpus(random.Random(1))

    if os.path.exists(args.tokenizer):
        with (lzma.open if args.tokenizer.endswith(".xz") else open)(args.tokenizer, "rt", encoding="utf-8") as f:
            source = json.load(f)
        blob, specials = export.tokenizer_blob(source)
        write_vocabulary(out("vocab.g4"), blob, specials, 262144)
        rng = random.Random(2)
        vocab = source["model"]["vocab"]
        cases = texts(rng, sorted(vocab), list(specials) + ["<unused7>", "<table>", "<0x0A>", "[multimodal]"], 1200)
        write_cases(out("tokenizer_gemma4.bin"), cases, hf_encoder(source), lambda b: vocab[f"<0x{b:02X}>"])
    else:
        print(f"{args.tokenizer} is not there: vocab.g4 and tokenizer_gemma4.bin are left alone")

    source = small_vocabulary(lines)
    blob, specials = export.tokenizer_blob(source)
    vocab = source["model"]["vocab"]
    added = [t["content"] for t in source["added_tokens"]]
    write_vocabulary(out("tokenizer_small.g4"), blob, specials, max(t["id"] for t in source["added_tokens"]) + 1)
    write_cases(out("tokenizer_small.bin"), texts(random.Random(3), sorted(vocab), added, 800), hf_encoder(source),
                lambda b: vocab[f"<0x{b:02X}>"])

    with tempfile.TemporaryDirectory() as folder:
        meta, processor = sentencepiece_vocabulary(lines, folder)
    tokens = meta["tokenizer.ggml.tokens"]
    blob, specials = export.tokenizer_blob(meta)
    write_vocabulary(out("tokenizer_spm.g4"), blob, specials, len(tokens))
    marked = [t for t, k in zip(tokens, meta["tokenizer.ggml.token_type"]) if k in (2, 3, 4)]
    write_cases(out("tokenizer_spm.bin"), texts(random.Random(4), tokens, marked, 800), spm_encoder(meta, processor),
                lambda b: tokens.index(f"<0x{b:02X}>"))


if __name__ == "__main__":
    main()
