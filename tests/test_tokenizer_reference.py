#!/usr/bin/env python3
"""The tokenizer against the reference implementations, live.

usage: test_tokenizer_reference.py LIBRARY [--n N] [--seed S] [--gguf FILE]
LIBRARY is build/libgemma4.so. Three parts; each is skipped where its source is missing:
  golden   make_tokenizer_data.py gives the committed files again (the real vocabulary needs ../shared)
  gemma4   N random texts, whole and streamed, against Hugging Face tokenizers (../shared/gemma4-tokenizer)
  gemma3   N random texts against sentencepiece, built from the vocabulary of --gguf, and against transformers
Needs numpy, tokenizers, sentencepiece, protobuf; the last part also gguf and transformers. Ends with the line
"N passed, N failed".
"""
import argparse
import ctypes
import filecmp
import json
import lzma
import os
import random
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
sys.path.insert(0, os.path.join(ROOT, "tests"))
import checkpoints  # noqa: E402
import export  # noqa: E402
import make_tokenizer_data as data  # noqa: E402

SHARED = os.path.join(ROOT, "..", "shared", "gemma4-tokenizer", "tokenizer.json.xz")


class Options(ctypes.Structure):  # g4_engine_options
    _fields_ = [("model_path", ctypes.c_char_p), ("model_data", ctypes.c_void_p), ("model_size", ctypes.c_size_t),
                ("n_threads", ctypes.c_int), ("isa", ctypes.c_char_p), ("allocator", ctypes.c_void_p),
                ("log", ctypes.c_void_p), ("user", ctypes.c_void_p), ("later", ctypes.c_char * 256)]


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("message", ctypes.c_char * 256)]


class Engine:
    def __init__(self, library, path):
        self.lib, self.engine, err = library, ctypes.c_void_p(), Error()
        options = Options(model_path=path.encode(), n_threads=1)
        if library.g4_engine_open(ctypes.byref(self.engine), ctypes.byref(options), ctypes.byref(err)):
            raise SystemExit(f"{path}: {err.message.decode()}")

    def encode(self, text, specials):
        raw = text.encode() if isinstance(text, str) else text
        out, n, err = (ctypes.c_int32 * (len(raw) + 1))(), ctypes.c_size_t(), Error()
        if self.lib.g4_tokenize(self.engine, raw, ctypes.c_size_t(len(raw)), ctypes.c_int(specials), out,
                                ctypes.c_size_t(len(raw) + 1), ctypes.byref(n), ctypes.byref(err)):
            raise SystemExit(err.message.decode())
        return out[:n.value]

    def decode(self, ids):
        piece, out = ctypes.create_string_buffer(256), b""
        for i in ids:
            n = self.lib.g4_token_bytes(self.engine, ctypes.c_int32(i), 0, piece)
            out += piece.raw[:n]
        return out


class Score:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def check(self, ok, what):
        self.passed, self.failed = self.passed + bool(ok), self.failed + (not ok)
        if not ok and self.failed <= 20:
            print(f"failed: {what}")

    def skip(self, why):
        self.skipped += 1
        print(f"skipped: {why}")


def compare(score, engine, name, cases, encode, specials=(0, 1)):
    for text in cases:
        for s in specials:
            ids = engine.encode(text, s)
            score.check(ids == encode(text, s), f"{name}, specials {s}: {text!r}"[:300])
            score.check(engine.decode(ids) == text.replace(export.SPACE, " ").encode(), f"{name}, back: {text!r}"[:300])


def golden(score):
    with tempfile.TemporaryDirectory() as folder:
        script = os.path.join(ROOT, "tests", "make_tokenizer_data.py")
        subprocess.run([sys.executable, script, "--out", folder], check=True)
        for name in sorted(os.listdir(folder)):
            paths = os.path.join(folder, name), os.path.join(ROOT, "tests", "data", name)
            same = checkpoints.same_model(*paths) if name.endswith(".g4") else filecmp.cmp(*paths, shallow=False)
            score.check(same, f"tests/data/{name} is not what the script makes")


def gemma4(score, library, n, rng):
    if not os.path.exists(SHARED):
        return score.skip(f"{SHARED} is not there")
    with lzma.open(SHARED, "rt", encoding="utf-8") as f:
        source = json.load(f)
    engine = Engine(library, os.path.join(ROOT, "tests", "data", "vocab.g4"))
    vocab, markers = sorted(source["model"]["vocab"]), [t["content"] for t in source["added_tokens"]]
    compare(score, engine, "gemma4", [data.fragments(rng, vocab, markers) for _ in range(n)], data.hf_encoder(source))


def gemma3(score, library, path, n, rng):
    if not os.path.exists(path):
        return score.skip(f"{path} is not there (make run fetches it)")
    import gguf
    import sentencepiece as spm
    from sentencepiece import sentencepiece_model_pb2
    from transformers import AutoTokenizer
    fields = gguf.GGUFReader(path).fields
    meta = {k: f.contents() for k, f in fields.items() if k.startswith("tokenizer.ggml.")}
    tokens, kinds = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    blob, specials = export.tokenizer_blob(meta)
    with tempfile.TemporaryDirectory() as folder:
        data.write_vocabulary(os.path.join(folder, "v.g4"), blob, specials, len(tokens))
        engine = Engine(library, os.path.join(folder, "v.g4"))

    # The SentencePiece model that the GGUF was made from: its types have the same numbers, <unk> is the unknown piece.
    model = sentencepiece_model_pb2.ModelProto()
    for text, kind, value in zip(tokens, kinds, meta["tokenizer.ggml.scores"]):
        model.pieces.add(piece=text.replace(" ", export.SPACE), score=value, type=2 if text == "<unk>" else kind)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.byte_fallback, trainer.vocab_size = 2, True, len(tokens)
    trainer.pad_id, trainer.eos_id, trainer.bos_id, trainer.unk_id = 0, 1, 2, 3
    trainer.pad_piece, trainer.eos_piece, trainer.bos_piece, trainer.unk_piece = "<pad>", "<eos>", "<bos>", "<unk>"
    normalizer.name, normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces = "identity", False, False
    processor = spm.SentencePieceProcessor(model_proto=model.SerializeToString())

    marked = [t for t, k in zip(tokens, kinds) if k in (3, 4)]
    cases = [data.fragments(rng, [t for t, k in zip(tokens, kinds) if k in (1, 4)], marked) for _ in range(n)]
    compare(score, engine, "gemma3 and sentencepiece", cases, data.spm_encoder(meta, processor), specials=(0,))

    # transformers ranks the merges of spaces by id, so it cuts runs beyond 31 differently: see _tokenizer_from_gguf.
    hf = AutoTokenizer.from_pretrained(os.path.dirname(path) or ".", gguf_file=os.path.basename(path))
    few = [t for t in cases if " " * 32 not in t.replace(export.SPACE, " ")]
    compare(score, engine, "gemma3 and transformers", few,
            lambda t, s: hf(t, add_special_tokens=False, split_special_tokens=not s).input_ids)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gguf", default=os.path.join(ROOT, "models", "gemma3-270m.gguf"))
    args = parser.parse_args()
    library, score, rng = ctypes.CDLL(os.path.abspath(args.library)), Score(), random.Random(args.seed)
    library.g4_token_bytes.restype = ctypes.c_size_t
    golden(score)
    gemma4(score, library, args.n, rng)
    gemma3(score, library, args.gguf, args.n, rng)
    print(f"{score.passed} passed, {score.failed} failed" + (f", {score.skipped} skipped" if score.skipped else ""))
    return score.failed > 0


if __name__ == "__main__":
    sys.exit(main())
