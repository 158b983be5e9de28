#!/usr/bin/env python3
"""export.py and files as people have them: broken ones, quantised ones, settings in every way they are written, outputs that must not
be touched. Small checkpoints of random numbers are made here (checkpoints.py); what they must become is known by construction, or
by another checkpoint that says the same in the plain way. Needs numpy. Ends with the line "N passed, N failed".
"""

import contextlib
import hashlib
import io
import json
import os
import re
import resource
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
from unittest import mock

import checkpoints as make
import export
import score
from score import expect

import numpy as np

PROGRAM = os.path.abspath(os.environ.get("G4_PROGRAM", os.path.join(make.ROOT, "gemma4")))


def run(*arguments):
    """(exit status, what was said) of the program, in this process."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), mock.patch.object(sys, "argv", ["export.py", *map(str, arguments)]):
        try:
            code = export.main()
        except SystemExit as e:
            code = e.code
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    return code, said.getvalue()


class Place:
    """A folder for sources, and one for outputs that must stay empty where nothing is written."""

    def __init__(self, scratch):
        self.scratch, self.out = scratch, os.path.join(scratch, "out")
        os.mkdir(self.out)
        self.g4 = os.path.join(self.out, "x.g4")

    def path(self, name):
        return os.path.join(self.scratch, name)

    def folder(self, name, *parts, **files):
        shutil.rmtree(self.path(name), ignore_errors=True)
        return make.folder(self.path(name), *parts, **files)

    def file(self, name, data):
        make.write(self.path(name), data)
        return self.path(name)

    def convert(self, source, *options, to="x.g4"):
        """Export as float32; the path of the model file."""
        path = os.path.join(self.out, to)
        code, said = run(source, "-o", path, "--type", "f32", "--name", "same", *options)
        expect(code == 0, f"{source} is exported: {said}")
        return path

    def refused(self, source, *words, options=()):
        code, said = run(source, "-o", self.g4, *options)
        expect(code == 1 and said.count("\n") == 1 and all(word in said for word in words), f"refused with {words}: exit {code}, {said!r}")
        expect(os.listdir(self.out) == [], f"nothing is left after {words}: {os.listdir(self.out)}")


CONFIG = make.config()
TENSORS = make.tensors(CONFIG)
Q = "model.language_model.layers.0.self_attn.q_proj.weight"  # (16, 32)


# ---- Broken files ------------------------------------------------------------------------------------------

def test_safetensors(place):
    where = place.folder("broken", CONFIG)
    path, whole = os.path.join(where, "model.safetensors"), make.safetensors(TENSORS)

    def refused(data, *words):
        make.write(path, data)
        place.refused(where, *words)

    def header(key, value, *words, name=Q):
        def change(head):
            head[name] = {**head[name], key: value}
            return head
        refused(make.safetensors(TENSORS, change), *words)

    size, before = len(TENSORS[Q][2]), list(TENSORS)[:list(TENSORS).index(Q)]
    begin = sum(len(TENSORS[name][2]) for name in before)
    end = begin + size
    header("data_offsets", [begin, end, end], Q, "data_offsets", "list of 2")
    header("data_offsets", [begin], Q, "list of 2")
    header("data_offsets", [-4, end], Q, "-4, expected a count")
    header("data_offsets", [begin - 2, end - 2], Q, f"begins at byte {begin - 2}", f"ends at {begin}")
    header("data_offsets", [0, size], Q, "begins at byte 0")
    header("data_offsets", [begin + 2, end + 2], Q, f"begins at byte {begin + 2}")
    header("data_offsets", [begin, end + 4], Q, f"hold {size + 4}")
    header("data_offsets", [begin, 2**63], Q, "expected a count")
    header("data_offsets", "ab", Q, "expected a list of 2")
    header("dtype", "F4", Q, "dtype is 'F4'")
    header("dtype", None, Q, "has no dtype")
    header("dtype", "F32", Q, f"has {2 * size} bytes")
    header("shape", [2**40] * 100, Q, "dimensions")
    header("shape", [2**31, 2**31], Q, "expected a count")
    header("shape", [0, 8], Q, "expected a count")
    header("shape", [8, 1.5], Q, "1.5")
    header("shape", TENSORS[Q][1][::-1], "has shape (32, 16), expected (16, 32)")
    refused(make.safetensors(TENSORS, lambda head: [1]), "not valid: it is not an object")
    refused(make.safetensors(TENSORS, lambda head: {**head, Q: [1]}), Q, "expected an object")
    refused(make.safetensors(TENSORS, lambda head: json.dumps(head)[:-1] + "," + json.dumps({Q: head[Q]})[1:]), "stands there twice")
    refused(make.safetensors(TENSORS, lambda head: "[" * 100000), "not valid")
    refused(struct.pack("<Q", 2**63) + whole[8:], f"a header of {2**63} bytes")
    refused(struct.pack("<Q", 50) + whole[8:], "header is not valid")
    refused(b"", "empty file")
    refused(whole[:5], "not a safetensors file")
    refused(whole[:len(whole) // 2], "cut short")
    refused(whole[:-1], "cut short")
    refused(whole + b"more", f"of {len(whole) + 4}")
    refused(make.safetensors({**TENSORS, "model.\n\x1b[31m" + "x" * 3000: ("F32", [1], bytes(4))}), "unknown tensor model.\\n\\x1b[31mxxx", "...")
    refused(make.safetensors({**TENSORS, Q: ("BF16", TENSORS[Q][1], b"\xff\x7f" * (size // 2))}), f"{Q}: holds a NaN")
    os.unlink(path)
    os.mkfifo(path)
    place.refused(where, "not a regular file")


def test_settings_broken(place):
    def refused(*words, t=None, **files):
        where = place.folder("settings", CONFIG, t, **files)
        place.refused(where, *words)

    def text(**changes):
        return {"text_config": {**CONFIG["text_config"], **changes}, **{k: v for k, v in CONFIG.items() if k != "text_config"}}

    for key, value, *words in (
            ("num_hidden_layers", 2**31 - 1, "from 1 to 512"), ("num_hidden_layers", -1, "-1"), ("num_hidden_layers", float("nan"), "nan"),
            ("hidden_size", 10**40, "hidden_size"), ("hidden_size", "x" * 9999, "'xxx", "..."), ("rms_norm_eps", float("nan"), "rms_norm_eps is nan"),
            ("rms_norm_eps", True, "True"), ("vocab_size", 2**32, "vocab_size"), ("sliding_window", None, "has no sliding_window"),
            ("layer_types", 7, "layer_types"), ("layer_types", [[], {}, 1], "layer_types"), ("rope_parameters", [1], "expected an object"),
            ("rope_parameters", {"sliding_attention": {}}, "has no rope_theta"), ("intermediate_size", 0, "from 1"),
            ("rope_parameters", {"sliding_attention": {"rope_theta": float("inf")}, "full_attention": {}}, "rope_theta is inf"),
            ("num_kv_shared_layers", 99, "from 0 to 3"), ("per_layer_config", {"7": {}}, "'7' is not a layer"),
            ("per_layer_config", {"1": {"head_dim": 2**31 - 2}}, "head_dim is 2147483646, expected a count from 0 to 1024"),
            ("head_dim", 2**31 - 2, "from 0 to 1024"), ("global_head_dim", 2**31 - 2, "from 0 to 1024"),
            ("final_logit_softcapping", -1, "from 0"), ("final_logit_softcapping", 1e7, "to 1e+06"), ("rms_norm_eps", 1e-320, "rms_norm_eps is 1e-320"),
            ("rms_norm_eps", 0, "from 1e-37 to 1")):
        refused(key, *words, config=text(**{key: value}))
    both = make.config(towers=True)
    for tower, key, value, *words in (
            ("vision_config", "rms_norm_eps", 1e-320, "rms_norm_eps is 1e-320"), ("audio_config", "rms_norm_eps", 0, "from 1e-37 to 1"),
            ("audio_config", "gradient_clipping", 0, "gradient_clipping is 0"), ("audio_config", "residual_weight", 1e7, "to 1e+06"),
            ("vision_config", "rope_parameters", {"rope_theta": 1e13}, "rope_theta is 1")):
        where = place.folder("settings", {**both, tower: {**both[tower], key: value}}, make.tensors(both))
        place.refused(where, *words)
    refused("layer 0 has 2 heads over 1 of keys, of 7", config=text(head_dim=7))
    refused("q_proj.weight has shape (16, 32), expected (24, 32)", config=text(num_attention_heads=3))
    refused("expected an object", config={"model_type": "gemma4", "text_config": [1]})
    refused("model_type", config={"model_type": ["gemma4"]})
    refused("nested too deeply", config=b'{"a":' * 100000)
    refused("not a JSON object", config=[1])
    refused("config.json: not UTF-8 at byte 2", config=b'{"\xff": 1}')
    refused("not JSON", config=b"{")
    refused("config.json: empty file", config=b"")
    refused("temperature is nan", generation_config={"temperature": float("nan")})
    refused("top_k is '64'", generation_config={"top_k": "64"})
    refused("top_k is 0.5", generation_config={"top_k": 0.5})
    refused("top_k is 64000000", generation_config={"top_k": 64_000_000})  # which the engine refuses
    refused("top_p is 7", generation_config={"top_p": 7})
    refused("eos_token_id is -1", generation_config={"eos_token_id": -1})
    refused("eos_token_id is 9999", generation_config={"eos_token_id": [1, 9999]})
    refused("more than 7 ids", generation_config={"eos_token_id": list(range(20, 40))})
    refused("max_soft_tokens is 'x'", processor_config={"image_processor": {"max_soft_tokens": "x"}})
    refused("chat_template is 7", tokenizer_config={"chat_template": 7})
    t = make.tokenizer()
    for change, *words in (
            ({"model": []}, "model is not an object"), ({"added_tokens": [1]}, "added_tokens"), ({"added_tokens": {"a": 1}}, "added_tokens"),
            ({"normalizer": 7}, "normalizer"), ({"normalizer": {"type": "Sequence", "normalizers": 7}}, "normalizer"),
            ({"pre_tokenizer": [1]}, "pre_tokenizer"), ({"model": {**t["model"], "vocab": [1]}}, "vocab"),
            ({"model": {**t["model"], "vocab": {**t["model"]["vocab"], "zz": -1}}}, "vocab"), ({"model": {**t["model"], "merges": 7}}, "merges"),
            ({"model": {**t["model"], "vocab": {**t["model"]["vocab"], "zz": 2**40}}}, "vocab"),
            ({"model": {**t["model"], "merges": [["a", "b", "c"]]}}, "not a pair"), ({"model": {**t["model"], "merges": [["a", 7]]}}, "not a pair"),
            ({"model": {**t["model"], "merges": [["a", "zz"]]}}, "'zz'"), ({"added_tokens": [], "model": {**t["model"], "vocab": {"a": 0}, "merges": []}}, "no byte token"),
            ({"model": {**t["model"], "vocab": {**t["model"]["vocab"], "\ud800": 1}}}, "share an id")):
        refused("tokenizer", *words, tokenizer={**t, **change})


def test_gguf(place):
    meta, tensors = make.gguf_parts(CONFIG, TENSORS)

    def refused(data, *words):
        place.refused(place.file("broken.gguf", data), *words)

    def changed(*words, drop=(), **values):
        values = {key.replace("__", "."): value for key, value in values.items()}
        refused(make.gguf({k: v for k, v in {**meta, **values}.items() if k not in drop}, tensors), *words)

    u32, string = lambda n: (4, struct.pack("<I", n)), lambda n: (8, struct.pack("<Q", n) + b"ab")
    changed("general.alignment is 0", general__alignment=u32(0))
    changed("power of 2", general__alignment=u32(30))
    changed("general.alignment is", general__alignment=(7, b"\1"))
    changed("a text of", f"{2**62} bytes", "cut short", **{"tokenizer.ggml.tokens": (9, struct.pack("<IQQ", 8, 2, 2**62))})
    changed("the text of general.name", f"{2**63 - 1} bytes", general__name=string(2**63 - 1))
    changed("a list of", "more than", gemma4__x=(9, struct.pack("<IQ", 4, 2**61)))
    changed("the list gemma4.x of 67108860 bytes", gemma4__x=(9, struct.pack("<IQ", 4, 2**24 - 1)))
    changed("list of unknown type 9", gemma4__x=(9, struct.pack("<IQ", 9, 1)))
    changed("unknown type 13", gemma4__x=(13, b""))
    changed("rms_epsilon is nan", **{"gemma4.attention.layer_norm_rms_epsilon": (6, struct.pack("<f", float("nan")))})
    changed("temperature is inf", **{"general.sampling.temp": (6, struct.pack("<f", float("inf")))})
    changed("top_k is -1", **{"general.sampling.top_k": (5, struct.pack("<i", -1))})
    changed("block_count is 2147483647", gemma4__block_count=u32(2**31 - 1))
    changed("block_count is 'x'", gemma4__block_count="x")
    changed("head_count_kv is [1]", **{"gemma4.attention.head_count_kv": [1]})
    changed("sliding_window_pattern is 0", **{"gemma4.attention.sliding_window_pattern": 0})
    changed("has no block_count", drop=["gemma4.block_count"])
    changed("general.name is 7", general__name=7)
    changed("chat_template is 7", **{"tokenizer.chat_template": 7})
    changed("tokens is not a list", **{"tokenizer.ggml.tokens": "x"})
    changed("architecture ['gemma4']", general__architecture=["gemma4"])
    changed("architecture 'llama'", general__architecture="llama")
    changed("one of 3 parts", "must be called NAME-00001-of-00003.gguf", **{"split.count": 3})
    changed("a LoRA adapter", general__type="adapter")
    changed("give that, and this with --mmproj", general__architecture="clip")
    changed("300 characters", **{"tokenizer.ggml.tokens": ["x" * 300, *meta["tokenizer.ggml.tokens"][1:]]})
    whole = make.gguf(meta, tensors)
    refused(struct.pack("<4sIQQ", b"GGUF", 3, 2**63, 1) + whole[24:], f"{2**63} tensors do not fit")
    refused(struct.pack("<4sIQQ", b"GGUF", 3, 1, 2**40) + whole[24:], f"{2**40} metadata keys do not fit")
    refused(struct.pack("<4sI", b"GGUF", 9) + whole[8:], "version 9", "(2 and 3 are): convert")
    refused(struct.pack(">4sIQQ", b"GGUF", 3, 1, 1) + whole[24:], "a big-endian GGUF", "gguf-convert-endian")
    for gone in ("output_norm.weight", "blk.1.ffn_down.weight"):
        refused(make.gguf(meta, {name: t for name, t in tensors.items() if name != gone}), f"tensor {gone} is missing")
    refused(make.gguf(meta, {**tensors, "blk.0.attn_q.bias": ("F32", [1], bytes(4))}), "unknown tensor blk.0.attn_q.bias (1,): ", "convert another file")
    refused(b"GGML" + whole[4:], "not a GGUF file")
    for size in (3, 23, 24, 100, 5000, len(whole) // 2, len(whole) - 40):
        refused(whole[:size], "GGUF" if size < 24 else "cut short")
    refused(whole.replace(struct.pack("<Q", 17) + b"general.file_type", struct.pack("<Q", 12) + b"general.name", 1), "general.name stands there twice")
    name = struct.pack("<Q", 17) + b"token_embd.weight"
    refused(whole.replace(struct.pack("<Q", 18) + b"output_norm.weight", name, 1), "token_embd.weight stands there twice")
    # the last number of a description is the place: after name, dimensions, shape and type
    at = whole.index(name) + len(name) + 4 + 16 + 4
    refused(whole[:at] + struct.pack("<Q", 7) + whole[at + 8:], "begins at 7")
    refused(whole[:at] + struct.pack("<Q", 32) + whole[at + 8:], "overlap")
    refused(whole[:at] + struct.pack("<Q", 2**63) + whole[at + 8:], "cut short, or damaged")
    refused(whole[:at - 4] + struct.pack("<I", 24) + whole[at + 4 - 4:], "token_embd.weight has GGML type", "Q4_K", "are): convert a file of another type")
    refused(whole[:at - 4] + struct.pack("<I", 14) + whole[at + 4 - 4:], "token_embd.weight of type Q6_K", "a multiple of 256")
    refused(whole[:at - 24] + struct.pack("<I", 2**31) + whole[at - 20:], "dimensions")
    refused(whole[:at - 20] + struct.pack("<QQ", 2**60, 2**60) + whole[at - 4:], "cut short, or damaged")
    refused(make.safetensors(TENSORS), "a safetensors file: give the folder")
    refused(export.MAGIC + bytes(100), "a model file already")
    place.refused(place.folder("plain", CONFIG), "--mmproj goes with a .gguf", options=["--mmproj", place.path("broken.gguf")])


def test_split(place):
    """A GGUF in parts is the one that was split, whichever part is given."""
    meta, tensors = make.gguf_parts(CONFIG, TENSORS)
    want = place.convert(place.file("whole.gguf", make.gguf(meta, tensors)), to="whole.g4")
    names = list(tensors)
    cuts = [names[:7], [], names[7:20], names[20:]]

    def write(change=lambda i, keys: keys, cuts=cuts):
        for i, part in enumerate(cuts):
            keys = {"split.no": i, "split.count": len(cuts), "split.tensors.count": len(names)}
            data = make.gguf({**(meta if i == 0 else {}), **change(i, keys)}, {name: tensors[name] for name in part})
            place.file(f"m-{i + 1:05}-of-{len(cuts):05}.gguf", data)
        return place.path(f"m-00001-of-{len(cuts):05}.gguf")

    first = write()
    for i in (1, 3):
        expect(make.same_model(place.convert(place.path(f"m-{i:05}-of-00004.gguf")), want), f"part {i} of a split GGUF gives the whole")
    hashes = "".join(f"{hashlib.sha256(read(place.path(f'm-{i:05}-of-00004.gguf'))).hexdigest()}  m-{i:05}-of-00004.gguf\n" for i in range(1, 5))
    expect(make.read_config(place.g4)["source_sha256"] == hashlib.sha256(hashes.encode()).hexdigest(), "its hash is of all parts")
    os.unlink(place.g4), os.unlink(want)
    third = place.path("m-00003-of-00004.gguf")
    os.rename(third, place.path("gone"))
    place.refused(first, "m-00003-of-00004.gguf: missing, part 3 of 4")
    os.rename(place.path("gone"), third)
    shutil.copyfile(first, place.path("other.gguf"))
    place.refused(place.path("other.gguf"), "must be called NAME-00001-of-00004.gguf")
    shutil.copyfile(place.path("m-00002-of-00004.gguf"), third)
    place.refused(first, "m-00003-of-00004.gguf: calls itself part 2 of 4", "expected 3 of 4")
    place.refused(write(lambda i, keys: {**keys, "split.tensors.count": 7}), f"{len(names)} tensors in 4 parts, expected 7")
    place.refused(write(cuts=[names, names[:1]]), "m-00002-of-00002.gguf: tensor", "lies in an earlier part too")
    place.refused(write(lambda i, keys: {**keys, "split.count": "x"}), "split.count is 'x'")
    make.write(write(), b"GGUF")
    place.refused(first, "m-00001-of-00004.gguf: not a GGUF file")


def test_drafters(place):
    """Tensors of multi-token prediction are left out, by their names."""
    meta, tensors = make.gguf_parts(CONFIG, TENSORS)
    want = place.convert(place.file("m.gguf", make.gguf(meta, tensors)), to="want.g4")
    one = ("F32", [2, 32], bytes(256))
    extra = ("blk.2.nextn.eh_proj.weight", "nextn.pre_projection.weight", "mtp_pre_proj.weight", "mtp.centroids.weight", "masked_embd_ordering")
    path = place.file("m.gguf", make.gguf(meta, {**tensors, **dict.fromkeys(extra, one)}))
    code, said = run(path, "-o", place.g4, "--type", "f32", "--name", "same")
    expect(code == 0 and make.same_model(place.g4, want), f"drafters in a GGUF change nothing: {said}")
    expect(f"left out: {len(extra)} tensors (multi-token prediction" in said, f"and are listed: {said}")
    where = place.folder("f", CONFIG, {**TENSORS, "mtp.layers.0.x": one, "model.mtp.norm.weight": one})
    code, said = run(where, "-o", place.g4)
    expect(code == 0 and "left out: 2 tensors (multi-token prediction" in said, f"drafters in a folder: {said}")


def test_factors(place):
    """Tensors beside a matrix, or beside a stack of experts, that hold factors of it, as llama.cpp writes them for NVFP4."""
    rng, c = np.random.default_rng(7), make.config(enable_moe_block=True, num_experts=3, top_k_experts=2, moe_intermediate_size=32)
    meta, tensors = make.gguf_parts(c, make.tensors(c))
    for layer in range(3):  # gate and up of experts apart
        dtype, shape, data = tensors.pop(f"blk.{layer}.ffn_gate_up_exps.weight")
        for half, x in zip(("gate", "up"), np.split(np.frombuffer(data, "<u2").reshape(shape), 2, axis=1)):
            tensors[f"blk.{layer}.ffn_{half}_exps.weight"] = (dtype, list(x.shape), x.tobytes())
    for name, n in (("blk.0.attn_q", 1), ("blk.1.ffn_down", 1), ("token_embd", 1), ("blk.1.ffn_gate_exps", 3), ("blk.2.ffn_up_exps", 3)):
        shape = tensors[name + ".weight"][1]
        for kind in ("BF16", "Q4_0", "MXFP4"):
            t = dict(tensors)
            if kind != "BF16":
                t[name + ".weight"] = (kind, shape, make.random_blocks(rng, kind, int(np.prod(shape)) // 32).tobytes())
            factors = np.float32(2) ** rng.integers(-3, 4, n).astype(np.float32)
            factors[0] = 0.3
            read = export.open_gguf(place.file("m.gguf", make.gguf(meta, t)), None).tensors.values()
            x = next(stored for stored in read if stored.name == name + ".weight").f32().reshape(n, -1) * factors[:, None]
            want = place.convert(place.file("m.gguf", make.gguf(meta, {**t, name + ".weight": ("F32", shape, x.astype("<f4").tobytes())})), to="want.g4")
            t.update({name + ".scale": ("F32", [n], factors.tobytes()), name + ".input_scale": ("F32", [n], bytes(4 * n))})
            path = place.file("m.gguf", make.gguf(meta, t))
            expect(make.same_model(want, place.convert(path)), f"{name} of type {kind} is multiplied by {factors}")
            code, said = run(path, "-o", place.g4)
            expect(code == 0 and "left out: 1 tensors (scales of activations" in said and "without loss" not in said, f"{name} of type {kind}: {said}")
            # blocks keep their integers, only d is rounded
            kept = export.open_gguf(path, None).tensors.values()
            kept = next(stored for stored in kept if stored.name == name + ".weight")
            made = kept.kept({"Q4_0": export.Q4_0, "MXFP4": export.Q5_0}.get(kind, export.BF16), 0, kept.rows)
            if kind == "BF16":
                expect(made is None, f"{name} of type {kind} has no blocks")
            else:
                back = export.TYPES[export.Q4_0 if kind == "Q4_0" else export.Q5_0].dequantize(*made).reshape(n, -1)
                expect(np.allclose(back, x, rtol=2 ** -11, atol=1e-7), f"{name} of type {kind}: integers are kept")
    os.unlink(place.g4), os.unlink(want)
    for factors, *words in ((np.ones(2, "<f4"), "blk.0.attn_q.scale has shape (2,) in F32, expected one factor for each matrix of blk.0.attn_q.weight"),
                            (np.full(1, np.nan, "<f4"), "blk.0.attn_q.scale: holds a NaN")):
        tensors["blk.0.attn_q.scale"] = ("F32", list(factors.shape), factors.tobytes())
        place.refused(place.file("m.gguf", make.gguf(meta, tensors)), *words)


# ---- Kinds that are not read, by name ------------------------------------------------------------------------

def test_kinds(place):
    packed = {**TENSORS, Q: ("I8", [16, 32], bytes(512))}

    def with_config(kind, **values):
        place.refused(place.folder("kind", {**CONFIG, **values}, packed), kind, "bf16 checkpoint")

    for kind, settings in (
            ("FP8", {"quant_method": "fp8", "weight_block_size": [128, 128]}), ("FP8", {"quant_method": "compressed-tensors", "format": "float-quantized"}),
            ("NVFP4", {"quant_method": "modelopt", "quant_algo": "NVFP4"}), ("NVFP4", {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"}),
            ("FP8", {"quant_method": "modelopt", "quant_algo": "FP8"}), ("bitsandbytes", {"quant_method": "bitsandbytes", "load_in_4bit": True}),
            ("bitsandbytes", {"load_in_8bit": True}), ("AWQ", {"quant_method": "awq", "bits": 4}), ("GPTQ", {"quant_method": "gptq", "bits": 4}),
            ("mobile QAT", {"quant_method": "gemma"}), ("compressed-tensors", {"quant_method": "compressed-tensors", "format": "pack-quantized"}),
            ("'later'", {"quant_method": "later"})):
        with_config(kind, quantization_config=settings)
    tight = {Q: ("U8", [16, 16], bytes(256)), Q + "_scale": ("F8_E4M3", [16, 2], bytes(32)), Q + "_scale_2": ("F32", [], bytes(4))}
    place.refused(place.folder("kind", {**CONFIG, "quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, {**TENSORS, **tight}),
                  Q, "NVFP4", "bf16 checkpoint")
    with_config("MLX", quantization={"group_size": 64, "bits": 4}, quantization_config={"group_size": 64, "bits": 4})
    with_config("AWQ", text_config={**CONFIG["text_config"], "quantization_config": {"quant_method": "awq"}})
    left = place.folder("left", {**CONFIG, "quantization_config": {"quant_method": "fp8"}})
    expect(make.same_model(place.convert(left), place.convert(place.folder("plain", CONFIG), to="y.g4")), "weights that no longer are FP8")
    os.unlink(place.g4), os.unlink(os.path.join(place.out, "y.g4"))
    for kind, name, dtype in (("FP8", "weight_scale_inv", "F32"), ("NVFP4", "weight_scale_2", "F32"), ("bitsandbytes", "weight.absmax", "F32"),
                              ("GPTQ or AWQ", "qzeros", "I32"), ("MLX", "scales", "BF16"), ("FP8", "weight", "F8_E4M3")):
        size = {"F32": 4, "I32": 4, "BF16": 2, "F8_E4M3": 1}[dtype]
        place.refused(place.folder("kind", CONFIG, {**TENSORS, "model.x." + name: (dtype, [1], bytes(size))}), kind, "bf16 checkpoint")
    place.refused(place.folder("kind", CONFIG, {**TENSORS, "model.x": ("I64", [1], bytes(8))}), "model.x has type I64")
    place.refused(place.folder("kind", CONFIG, {**TENSORS, "base.x.lora_A.weight": ("F32", [1], bytes(4))}), "LoRA", "merge")
    adapter = place.path("adapter")
    os.mkdir(adapter)
    make.write(os.path.join(adapter, "adapter_config.json"), {"peft_type": "LORA", "base_model_name_or_path": "google/gemma-4-E2B-it"})
    place.refused(adapter, "a LoRA adapter of google/gemma-4-E2B-it", "merge")
    place.refused(place.folder("kind", CONFIG, adapter_config={}), "a LoRA adapter and no model")
    other = place.path("other")
    os.mkdir(other)
    make.write(os.path.join(other, "model.Q4_0.gguf"), b"GGUF")
    place.refused(other, "no model.safetensors", "for model.Q4_0.gguf, give that file")
    os.rename(os.path.join(other, "model.Q4_0.gguf"), os.path.join(other, "pytorch_model.bin"))
    place.refused(other, "pytorch_model.bin is not read")


# ---- Outputs ---------------------------------------------------------------------------------------------------

def test_output(place):
    good = place.folder("good", CONFIG)

    def left():
        return sorted(os.listdir(place.out))

    def refused(path, *words):
        code, said = run(good, "-o", path)
        expect(code == 1 and said.count("\n") == 1 and all(word in said for word in words), f"-o {path}: exit {code}, {said!r}")

    for device in ("/dev/full", "/dev/null"):
        if os.path.exists(device):
            refused(device, "not a regular file")
            expect(stat.S_ISCHR(os.stat(device).st_mode), f"{device} is still the device")
    fifo, link = os.path.join(place.out, "fifo"), os.path.join(place.out, "link.g4")
    os.mkfifo(fifo)
    refused(fifo, "not a regular file")
    os.symlink(fifo, link)
    refused(link, "not a regular file")
    expect(left() == ["fifo", "link.g4"] and stat.S_ISFIFO(os.stat(fifo).st_mode), f"a FIFO stays what it is: {left()}")
    os.unlink(fifo), os.unlink(link)
    refused(place.out, "a folder")
    refused(place.out + "/", "a folder")
    refused(os.path.join(place.out, "no", "x.g4"), "No such file or directory")
    refused("", "a folder")
    source = place.file("m.gguf", make.gguf(*make.gguf_parts(CONFIG, TENSORS)))
    before = os.stat(source).st_size
    code, said = run(source, "-o", source)
    expect(code == 1 and "made from" in said and os.stat(source).st_size == before, f"the source is not replaced: {said}")
    # The source is not even looked at when the output cannot be.
    code, said = run(os.path.join(place.scratch, "nothing.gguf"), "-o", os.path.join(place.out, "no", "x.g4"))
    expect(code == 1 and "No such file or directory" in said, f"the output is checked first: {said}")
    if os.geteuid() != 0:
        os.chmod(place.out, 0o500)
        refused(place.g4, "no files can be written")
        os.chmod(place.out, 0o700)
    # a link is followed to where it points
    target = place.path("target")
    os.mkdir(target)
    os.symlink(os.path.join(target, "real.g4"), link)
    code, said = run(good, "-o", link, "--quiet")
    expect(code == 0 and said == "" and os.path.islink(link) and os.listdir(target) == ["real.g4"], f"a link is followed: {said}, {left()}")
    os.unlink(link)
    umask = os.umask(0o027)
    code, _ = run(good, "-o", place.g4)
    os.umask(umask)
    expect(code == 0 and os.stat(place.g4).st_mode & 0o777 == 0o640, f"the mode follows the umask: {oct(os.stat(place.g4).st_mode)}")

    # whatever happens on the way, the old file is there and nothing else
    with open(place.g4, "wb") as f:
        f.write(b"old")

    def unharmed(what, code, wanted, said, *words):
        with open(place.g4, "rb") as f:
            old = f.read()
        expect(code == wanted and old == b"old" and left() == ["x.g4"], f"{what}: exit {code}, {said!r}, {left()}")
        expect(all(word in said for word in words) and said.count("\n") <= 1, f"{what}: {said!r}")

    tiny = mock.Mock(free=1000)
    with mock.patch.object(export.shutil, "disk_usage", lambda _: tiny), mock.patch.object(export.ModelFile, "choose_scales", None):
        unharmed("no room", *reorder(run(good, "-o", place.g4), 1), "KB, only 1.00 KB are free")

    def kill(number):
        def now(*_):
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)  # impatient
        return now

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with mock.patch.object(export.os, "fsync", kill(number)):
            unharmed(f"signal {number}", *reorder(run(good, "-o", place.g4, "--quiet"), 128 + number))
    with mock.patch.object(export, "check_file", kill(signal.SIGINT)):
        unharmed("Ctrl-C at the check", *reorder(run(good, "-o", place.g4, "--quiet"), 130))
    with mock.patch.object(export.os, "pwrite", lambda *_: 0):
        unharmed("a short write", *reorder(run(good, "-o", place.g4, "--quiet"), 1), "not written whole")
    with mock.patch.object(export.ModelFile, "convert", side_effect=MemoryError):
        unharmed("no memory", *reorder(run(good, "-o", place.g4, "--quiet"), 1), "no memory")
    with mock.patch.object(export.ModelFile, "convert", side_effect=ZeroDivisionError("x")):
        unharmed("a fault", *reorder(run(good, "-o", place.g4, "--quiet"), 1), "a fault in export.py", "ZeroDivisionError")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, old[1]))
    result = run(good, "-o", place.g4, "--quiet", "--type", "f32")
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    unharmed("a disk that is full", *reorder(result, 1), "File too large")
    weights = os.path.join(good, "model.safetensors")
    whole = export.Numbers.__getitem__

    def cut(numbers, part):
        os.truncate(weights, 20000)
        return whole(numbers, part)

    with mock.patch.object(export.Numbers, "__getitem__", cut):
        unharmed("a source cut short meanwhile", *reorder(run(good, "-o", place.g4, "--quiet"), 1), "more are needed: cut short?")
    os.unlink(place.g4)


def reorder(result, wanted):
    code, said = result
    return code, wanted, said


# ---- The same source gives the same bytes ---------------------------------------------------------------------

def read(path):
    with open(path, "rb") as f:
        return f.read()


def test_same_bytes(place):
    files = {"generation_config": {"top_k": 7}, "tokenizer_config": {"chat_template": None}}
    first = place.folder("one/gemma", CONFIG, **files)
    want = read(place.convert(first))
    expect(read(place.convert(first)) == want, "two runs give the same bytes")
    # elsewhere, files made in another order, at another time, named by a relative path, with another hash seed
    second = place.path("two/gemma")
    os.makedirs(second)
    for name in sorted(os.listdir(first), reverse=True):
        shutil.copyfile(os.path.join(first, name), os.path.join(second, name))
        os.utime(os.path.join(second, name), (1, 1))
    expect(read(place.convert(second)) == want, "another folder gives the same bytes")
    script = os.path.join(make.ROOT, "export.py")
    r = subprocess.run([sys.executable, script, "gemma/", "-o", place.g4, "--type", "f32", "--name", "same", "--quiet"], cwd=place.path("two"),
                       env={**os.environ, "PYTHONHASHSEED": "7"})
    expect(r.returncode == 0 and read(place.g4) == want, "another process and a relative path give the same bytes")
    with mock.patch.object(export.os, "listdir", lambda path: sorted(os.scandir(path), reverse=True)):
        expect(read(place.convert(second)) == want, "the order of a folder does not matter")
    c = make.read_config(place.g4)
    names = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    lines = "".join(f"{hashlib.sha256(read(os.path.join(first, n))).hexdigest()}  {n}\n" for n in names)
    expect((c["source"], c["source_sha256"]) == ("gemma", hashlib.sha256(lines.encode()).hexdigest()), f"name and hash of a folder: {c['source']}")
    if os.path.exists(PROGRAM):
        said = subprocess.run([PROGRAM, "info", "-m", place.g4], capture_output=True, text=True).stdout
        expect(re.search(rf"made from +gemma\n +sha256 {c['source_sha256']}\n", said), f"gemma4 info: {said[:300]}")
    # the hash is of what was read: other settings another hash, a file that is not read none
    make.write(os.path.join(second, "README.json"), {})
    expect(read(place.convert(second)) == want, "what is not read does not count")
    make.write(os.path.join(second, "generation_config.json"), {"top_k": 7, "x": 1})
    expect(read(place.convert(second)) != want and make.same_model(place.g4, place.convert(first, to="y.g4")), "another setting is another source")
    # a single file has the hash that is published of it
    data = make.gguf(*make.gguf_parts(CONFIG, TENSORS))
    c = make.read_config(place.convert(place.file("m.gguf", data)))
    expect((c["source"], c["source_sha256"]) == ("m.gguf", hashlib.sha256(data).hexdigest()), f"name and hash of a GGUF: {c['source']}")
    c = make.read_config(place.convert(place.file("\u00e9" * 70 + ".gguf", data)))
    expect(c["source"] == "\u00e9" * 47, f"a long name is cut between characters: {c['source']}")
    with mock.patch.object(export, "download", lambda _: first):
        c = make.read_config(place.convert("google/gemma-4-E2B-it"))
    expect(c["source"] == "google/gemma-4-E2B-it", f"the name of a hub id: {c['source']}")


# ---- Settings in every way they are written --------------------------------------------------------------------

def test_generation(place):
    for settings, wanted in (
            ({"temperature": None, "top_k": None, "top_p": None, "eos_token_id": None, "do_sample": None}, (1.0, 64, 0.95, [1])),
            ({"temperature": 1, "top_k": 64.0, "top_p": 1, "eos_token_id": 5.0}, (1.0, 64, 1.0, [1, 5])),
            ({"top_k": 40.0, "eos_token_id": [1.0, None, 5]}, (1.0, 40, 0.95, [1, 5])), ({"top_k": 0, "do_sample": False}, (0.0, 0, 0.95, [1])),
            ({}, (1.0, 64, 0.95, [1]))):
        c = make.read_config(place.convert(place.folder("g", CONFIG, generation_config=settings)))
        got = (c["temperature"], c["top_k"], round(c["top_p"], 6), c["stop"][:c["n_stop"]])
        expect(got == wanted, f"{settings}: {got}, expected {wanted}")
    text = {**CONFIG["text_config"], "hidden_size": 32.0, "num_hidden_layers": 3.0, "enable_moe_block": None, "rope_parameters": None,
            "vocab_size_per_layer_input": None, "attention_bias": None, "final_logit_softcapping": 30}
    path = place.convert(place.folder("g", {**CONFIG, "text_config": text, "vision_config": None, "audio_config": None}))
    expect(make.same_model(path, place.convert(place.folder("plain", CONFIG), to="plain.g4")), "null and 32.0 in config.json: absent, 32")
    c = make.read_config(place.convert(place.path("plain"), "--chat-template", "e2b-2026-07"))
    expect((c["chat_template"], c["flags"] & 8, c["n_stop"]) == (2, 8, 3), f"--chat-template: {c['chat_template']}, {c['n_stop']}")


def test_shards(place):
    """A single file comes before shards, which are left from before it was made."""
    where = place.folder("shards", CONFIG)
    want = read(place.convert(where))
    old = make.tensors(CONFIG, seed=9)
    make.write(os.path.join(where, "model-00001-of-00001.safetensors"), make.safetensors(old))
    make.write(os.path.join(where, "model.safetensors.index.json"), {"weight_map": {name: "model-00001-of-00001.safetensors" for name in old}})
    expect(read(place.convert(where)) == want, "model.safetensors beside shards is what counts")
    os.unlink(os.path.join(where, "model.safetensors"))
    expect(make.same_model(place.convert(where), place.convert(place.folder("old", CONFIG, old), to="y.g4")), "without it the shards do")
    os.unlink(place.g4), os.unlink(os.path.join(place.out, "y.g4"))
    for index, *words in (({}, "no weight_map"), ({"weight_map": {}}, "no weight_map"), ({"weight_map": {"x": 7}}, "no weight_map"),
                          ({"weight_map": {"x": "../y.safetensors"}}, "outside its folder"), ({"weight_map": {"x": ".."}}, "outside its folder"),
                          ({"weight_map": {"x": "gone.safetensors"}}, "gone.safetensors: No such file"),
                          ({"weight_map": {"x": "\ud800"}}, "no file can have that name"), ({"weight_map": {"x": "a\0b"}}, "no file can have that name")):
        make.write(os.path.join(where, "model.safetensors.index.json"), index)
        place.refused(where, *words)


def test_head(place):
    """Whether a model has a head of its own is said by the outer configuration; one that differs is used whatever that says."""
    embed = TENSORS["model.language_model.embed_tokens.weight"]
    other = make.tensors(CONFIG, seed=5)["model.language_model.embed_tokens.weight"]
    same, own = {**TENSORS, "lm_head.weight": embed}, {**TENSORS, "lm_head.weight": other}
    unset = object()
    for outer, inner, t, tied in (
            (False, True, own, False), (False, unset, own, False), (False, True, same, False), (True, False, TENSORS, True),
            (unset, False, TENSORS, True), (unset, unset, TENSORS, True), (True, True, same, True), (True, True, own, False),
            (unset, False, own, False), (unset, False, same, True), (None, unset, TENSORS, True)):
        c = {**CONFIG, "text_config": dict(CONFIG["text_config"])}
        for place_, value in ((c, outer), (c["text_config"], inner)):
            if value is not unset:
                place_["tie_word_embeddings"] = value
        path = place.convert(place.folder("head", c, t))
        expect(bool(make.read_config(path)["flags"] & 1) == tied, f"tied is {outer} outside, {inner} inside: expected {tied}")
        expect(("head" in make.read_tensors(path)) == (not tied), f"tied is {outer} outside, {inner} inside: a head in the file")
    os.unlink(place.g4)
    place.refused(place.folder("head", {**CONFIG, "tie_word_embeddings": False}, TENSORS), "lm_head.weight is missing")


def test_grouped_tower(place):
    """A vision tower with fewer heads of keys than of queries is what it is with its keys written out for every query."""
    full, groups = make.config(towers=True), make.config(towers=True)
    groups["vision_config"]["num_key_value_heads"] = 2
    few = {**make.tensors(groups), **make.bounds(groups)}
    many = dict(few)
    for name, (dtype, shape, data) in few.items():
        if re.search(r"vision_tower.*\.(k|v)_proj\.linear", name):
            x = np.frombuffer(data, "<u2").reshape(2, 4, shape[1]).repeat(2, axis=0)
            many[name] = (dtype, [16, shape[1]], x.tobytes())
    for kind in ("f32", "q4_0"):
        a = place.convert(place.folder("few", groups, few), "--vision-type", kind)
        b = place.convert(place.folder("many", full, many), "--vision-type", kind, to="y.g4")
        expect(make.same_model(a, b), f"{kind}: keys and values of two heads for four")
    os.unlink(a), os.unlink(b)
    for n, *words in ((3, "a divisor of 4"), (8, "from 1 to 4"), (0, "from 1 to 4"), (1, "has shape (8, 16), expected (4, 16)")):
        groups["vision_config"]["num_key_value_heads"] = n
        place.refused(place.folder("few", groups, few), *words)


def test_ollama(place):
    """One file with the towers in it, the tokenizer called llama, with merges."""
    c = make.config(towers=True)
    t = {**make.tensors(c), **make.bounds(c)}
    want = place.convert(place.folder("hub", c, t), to="hub.g4")
    for packed in (False, True):
        meta, tensors = make.ollama_parts(c, t, packed)
        got = place.convert(place.file("o.gguf", make.gguf(meta, tensors)), to="ollama.g4")
        a, b = make.read_config(want), make.read_config(got)
        different = {key for key in a if a[key] != b[key]} - {"source", "source_sha256", "n_stop", "stop"}
        expect(all(key.endswith(("_begin", "_end")) for key in different) and b["stop"][:2] == [1, 5], f"ollama's configuration: {different}")
        a, b = make.read_tensors(want), make.read_tensors(got)
        wrong = [name for name in a if a[name] != b.get(name) and not name.endswith("q_scale")]
        expect(list(a) == list(b) and not wrong, f"ollama's tensors, bounds {'packed' if packed else 'apart'}: {wrong}")
        scales = [np.frombuffer(x["a.0.q_scale"][1], "<f4") for x in (a, b)]  # softplus was rounded once more
        expect(np.allclose(*scales, rtol=2e-7, atol=0), f"ollama's scales: {scales}")
        expect(make.read_tokenizer(want) == make.read_tokenizer(got), "ollama's tokenizer")
    code, said = run(place.path("o.gguf"), "-o", place.g4)
    expect(code == 0 and "it has no chat template" in said and said.count("\n") == 3, f"a missing template is told: {said}")
    expect(re.search(r"converted: \d+ tensors from F32 to q8_0\n", said), f"and what becomes of the towers: {said}")
    code, said = run(place.path("o.gguf"), "-o", place.g4, "--text-only", "--chat-template", "e2b-2026-07")
    expect("template" not in said, f"and not, where one is named: {said}")
    towers = sum(name.startswith(("v.", "a.", "mm.")) for name in tensors)
    expect(code == 0 and f"left out: {towers} tensors (vision and audio towers)" in said, f"--text-only says what it leaves out: {said}")
    expect(make.read_config(place.g4)["v_layers"] == 0, "--text-only leaves the towers out")
    for path in ("x.g4", "hub.g4", "ollama.g4"):
        os.unlink(os.path.join(place.out, path))
    place.refused(place.path("o.gguf"), "towers of its own", "leave out --mmproj", options=["--mmproj", place.path("o.gguf")])
    # a name that is not known is refused by that name, and so is a packed list of another length
    place.refused(place.file("u.gguf", make.gguf(meta, {**tensors, "v.surprise": ("F32", [3], bytes(12))})), "unknown tensor v.surprise (3,)")
    place.refused(place.file("u.gguf", make.gguf(meta, {**tensors, "v.clamp_data": ("F32", [4], bytes(16))})), "v.clamp_data has shape (4,)")
    # Gemma 3 by ollama: merges rank, what fills the vocabulary up stands in no text
    t = make.tokenizer()
    tokens = [*t["model"]["vocab"], "[PAD0]", "<table>"]
    source = {"general.architecture": "gemma3", "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens,
              "tokenizer.ggml.token_type": [3 if x in make.CONTROL else 4 if x in ("[PAD0]", "<table>") else 1 for x in tokens],
              "tokenizer.ggml.scores": [float(i) for i in range(len(tokens))], "tokenizer.ggml.merges": [" ".join(m) for m in make.MERGES]}
    t["model"]["vocab"].update({"[PAD0]": len(tokens) - 2, "<table>": len(tokens) - 1})
    t["added_tokens"].append({"id": len(tokens) - 1, "content": "<table>", "special": False})
    expect(export.tokenizer_blob(source) == export.tokenizer_blob(t), "merges rank in a Gemma 3 of ollama")


def main():
    export.os.fsync = lambda fd: None  # nothing here outlives the run
    tests = (test_safetensors, test_settings_broken, test_gguf, test_split, test_drafters, test_factors, test_kinds, test_output, test_same_bytes, test_generation, test_shards, test_head,
             test_grouped_tower, test_ollama)
    for test in tests:
        with tempfile.TemporaryDirectory() as scratch:
            test(Place(scratch))
    return score.end()


if __name__ == "__main__":
    sys.exit(main())
