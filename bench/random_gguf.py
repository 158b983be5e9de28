#!/usr/bin/env python3
"""Write a GGUF of full size with random weights: as fast, and as slow, as the real model.

    python3 bench/random_gguf.py e2b q4_0 e2b-q4_0.gguf
    python3 bench/random_gguf.py e2b q8_0 e2b-mmproj-q8_0.gguf --mmproj
    python3 bench/random_gguf.py e2b q4_0 e2b-chat.gguf --tokenizer FOLDER

Every matrix has the one type asked for (what llama-quantize --pure gives), vectors are float32. llama.cpp runs the file as it is;
export.py converts it block for block, so that both engines read the same integers and scales. --mmproj writes the vision and audio
towers instead. Their convolutions and the table of positions are float32 there, as llama.cpp's own converter has them. --tokenizer takes
words and chat template from a checkpoint's folder: what is asked in a conversation can be timed then."""
import argparse
import json
import lzma
import os
import struct

import numpy as np

# hidden, layers, layers in the file, MLP width, query heads, KV heads sliding and full, every n-th layer full, window, layers that
# share keys and values, per-layer width, experts, experts used, expert width
SHAPES = {
    "e2b": dict(hidden=1536, layers=35, mlp=6144, heads=8, kv=(1, 1), full=5, window=512, shared=20, ple=256, wide=True),
    "e4b": dict(hidden=2560, layers=42, mlp=10240, heads=8, kv=(2, 2), full=6, window=512, shared=18, ple=256),
    "26b": dict(hidden=2816, layers=30, mlp=2112, heads=16, kv=(8, 2), full=6, window=1024, shared=0, ple=0,
                experts=128, used=8, expert=704),
    "31b": dict(hidden=5376, layers=60, mlp=21504, heads=32, kv=(16, 4), full=6, window=1024, shared=0, ple=0),
}
HEAD_DIM, HEAD_DIM_FULL, VOCAB = 256, 512, 262144
MEDIA = ("<|image>", "<|image|>", "<image|>", "<|audio>", "<|audio|>", "<audio|>", "<|video|>")
# The towers of e2b and e4b (MODEL.md, section 1).
VISION = dict(hidden=768, layers=16, heads=12, mlp=3072, patch=16, pool=3, positions=10240)
AUDIO = dict(hidden=1024, layers=12, heads=8, mlp=4096, mels=128, conv=(128, 32), kernel=5, out=1536)
TOWERS = ("e2b", "e4b")
BOUND = 1000.0  # of the clipped linears: the work is done, nothing is cut
TYPES = {"q4_0": (2, 32, 18), "q8_0": (8, 32, 34), "bf16": (30, 1, 2), "f32": (0, 1, 4)}  # GGML number, block, bytes


def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def value(v):
    """A GGUF metadata value: type number and bytes."""
    if isinstance(v, bool):
        return struct.pack("<I?", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, str):
        return struct.pack("<I", 8) + text(v)
    kind, pack = {bool: (7, "<?"), int: (5, "<i"), float: (6, "<f"), str: (8, None)}[type(v[0])]
    items = b"".join(text(x) for x in v) if pack is None else b"".join(struct.pack(pack, x) for x in v)
    return struct.pack("<IIQ", 9, kind, len(v)) + items


def tensors(m, n_layers):
    """(name, shape with the fastest dimension first, is a matrix) of every tensor."""
    h, ple = m["hidden"], m["ple"]
    yield "token_embd.weight", (h, VOCAB), True
    yield "output_norm.weight", (h,), False
    yield "rope_freqs.weight", (HEAD_DIM_FULL // 2,), False
    if ple:
        yield "per_layer_token_embd.weight", (ple * n_layers, VOCAB), True
        yield "per_layer_model_proj.weight", (h, ple * n_layers), True
        yield "per_layer_proj_norm.weight", (ple,), False
    for i in range(n_layers):
        full = (i + 1) % m["full"] == 0
        dim, kv = (HEAD_DIM_FULL, m["kv"][1]) if full else (HEAD_DIM, m["kv"][0])
        owner = i < n_layers - m["shared"]
        mlp = m["mlp"] if owner or not m.get("wide") else 2 * m["mlp"]
        b = f"blk.{i}."
        for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm"):
            yield b + name + ".weight", (h,), False
        yield b + "attn_q.weight", (h, m["heads"] * dim), True
        yield b + "attn_output.weight", (m["heads"] * dim, h), True
        yield b + "attn_q_norm.weight", (dim,), False
        if owner:
            yield b + "attn_k.weight", (h, kv * dim), True
            if ple or not full:  # without per-layer inputs, full layers use the keys as values
                yield b + "attn_v.weight", (h, kv * dim), True
            yield b + "attn_k_norm.weight", (dim,), False
        yield b + "ffn_gate.weight", (h, mlp), True
        yield b + "ffn_up.weight", (h, mlp), True
        yield b + "ffn_down.weight", (mlp, h), True
        if m.get("experts"):
            n, e = m["experts"], m["expert"]
            yield b + "ffn_gate_inp.weight", (h, n), False
            yield b + "ffn_gate_inp.scale", (h,), False
            for name in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"):
                yield b + name + ".weight", (h,), False
            yield b + "ffn_gate_up_exps.weight", (h, 2 * e, n), True
            yield b + "ffn_down_exps.weight", (e, h, n), True
            yield b + "ffn_down_exps.scale", (n,), False
        if ple:
            yield b + "inp_gate.weight", (h, ple), True
            yield b + "proj.weight", (ple, h), True
            yield b + "post_norm.weight", (h,), False
        yield b + "layer_output_scale.weight", (1,), False


def nobodys_words():
    """A vocabulary of the right size whose tokens are nobody's words. Kinds: 1 normal, 2 unknown, 3 control, 6 byte."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"<0x{b:02X}>" for b in range(256)] + list(MEDIA) + ["a", "b", "ab"]
    tokens += [f"t{i}" for i in range(len(tokens), VOCAB)]
    kinds = [3, 3, 3, 2] + [6] * 256 + [3] * len(MEDIA) + [1] * (VOCAB - 260 - len(MEDIA))
    return {"tokens": tokens, "token_type": kinds, "merges": ["a b"]}


def real_words(folder):
    """Tokens, merges and chat template of a checkpoint: tokenizer.json, or tokenizer.json.xz, and chat_template.jinja."""
    path = os.path.join(folder, "tokenizer.json")
    with open(path, encoding="utf-8") if os.path.exists(path) else lzma.open(path + ".xz", "rt", encoding="utf-8") as f:
        t = json.load(f)
    tokens = sorted(t["model"]["vocab"], key=t["model"]["vocab"].get)
    control = {a["content"] for a in t["added_tokens"]}
    kinds = [2 if x == "<unk>" else 3 if x in control else 6 if x.startswith("<0x") and len(x) == 6 else 1 for x in tokens]
    with open(os.path.join(folder, "chat_template.jinja"), encoding="utf-8") as f:
        template = f.read()
    return {"tokens": tokens, "token_type": kinds, "merges": [" ".join(m) for m in t["model"]["merges"]]}, template


def metadata(m, n_layers, folder):
    h = m["hidden"]
    full = [(i + 1) % m["full"] == 0 for i in range(n_layers)]
    wide = [m["mlp"] * (2 if m.get("wide") and i >= n_layers - m["shared"] else 1) for i in range(n_layers)]
    g = {"block_count": n_layers, "context_length": 131072, "embedding_length": h, "feed_forward_length": wide,
         "attention.head_count": m["heads"], "attention.head_count_kv": [m["kv"][f] for f in full],
         "attention.layer_norm_rms_epsilon": 1e-6, "attention.key_length": HEAD_DIM_FULL, "attention.value_length": HEAD_DIM_FULL,
         "attention.key_length_swa": HEAD_DIM, "attention.value_length_swa": HEAD_DIM, "attention.sliding_window": m["window"],
         "attention.sliding_window_pattern": [not f for f in full], "attention.shared_kv_layers": m["shared"],
         "embedding_length_per_layer_input": m["ple"], "final_logit_softcapping": 30.0, "rope.freq_base": 1e6,
         "rope.freq_base_swa": 1e4, "rope.dimension_count": HEAD_DIM_FULL, "rope.dimension_count_swa": HEAD_DIM}
    if m.get("experts"):
        g.update(expert_count=m["experts"], expert_used_count=m["used"], expert_feed_forward_length=m["expert"])
    words, template = real_words(folder) if folder else (nobodys_words(), None)
    t = {"model": "gemma4", **words, "scores": [0.0] * VOCAB, "bos_token_id": 2, "eos_token_id": 1, "padding_token_id": 0,
         "unknown_token_id": 3, "add_bos_token": True, "add_space_prefix": False}
    out = {"general.architecture": "gemma4", "general.name": "random weights"}
    out.update({f"gemma4.{k}": v for k, v in g.items()})
    out.update({f"tokenizer.ggml.{k}": v for k, v in t.items()})
    if template:
        out["tokenizer.chat_template"] = template
    return out


def clipped(name, n_in, n_out):
    """A linear whose input and output are clamped."""
    yield name + ".weight", (n_in, n_out), True
    for bound in ("input_min", "input_max", "output_min", "output_max"):
        yield f"{name}.{bound}", (1,), False


def tower_tensors(m):
    v, a = VISION, AUDIO
    h, dim = v["hidden"], v["hidden"] // v["heads"]
    yield "v.patch_embd.weight", (v["patch"], v["patch"], 3, h), False
    yield "v.position_embd.weight", (h, v["positions"], 2), False
    yield "mm.input_projection.weight", (h, m["hidden"]), True
    for i in range(v["layers"]):
        b = f"v.blk.{i}."
        for name in ("ln1", "ln2", "attn_post_norm", "ffn_post_norm"):
            yield b + name + ".weight", (h,), False
        for name in ("attn_q_norm", "attn_k_norm"):
            yield b + name + ".weight", (dim,), False
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            yield from clipped(b + name, h, h)
        yield from clipped(b + "ffn_gate", h, v["mlp"])
        yield from clipped(b + "ffn_up", h, v["mlp"])
        yield from clipped(b + "ffn_down", v["mlp"], h)
    h, dim, (c0, c1) = a["hidden"], a["hidden"] // a["heads"], a["conv"]
    yield "a.conv1d.0.weight", (3, 3, 1, c0), False
    yield "a.conv1d.0.norm.weight", (c0,), False
    yield "a.conv1d.1.weight", (3, 3, c0, c1), False
    yield "a.conv1d.1.norm.weight", (c1,), False
    yield "a.input_projection.weight", (a["mels"] // 4 * c1, h), True
    yield "a.pre_encode.out.weight", (h, a["out"]), True
    yield "a.pre_encode.out.bias", (a["out"],), False
    yield "mm.a.input_projection.weight", (a["out"], m["hidden"]), True
    for i in range(a["layers"]):
        b = f"a.blk.{i}."
        for name in ("ffn_norm", "ffn_post_norm", "ffn_norm_1", "ffn_post_norm_1", "attn_pre_norm", "attn_post_norm", "ln2",
                     "conv_norm", "norm_conv"):
            yield b + name + ".weight", (h,), False
        for part in ("", "_1"):
            yield from clipped(b + "ffn_up" + part, h, a["mlp"])
            yield from clipped(b + "ffn_down" + part, a["mlp"], h)
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            yield from clipped(b + name, h, h)
        yield b + "attn_k_rel.weight", (h, h), True
        yield b + "per_dim_scale.weight", (dim,), False
        yield from clipped(b + "conv_pw1", h, 2 * h)
        yield b + "conv_dw.weight", (a["kernel"], h), False
        yield from clipped(b + "conv_pw2", h, h)


def tower_metadata(m):
    g = {"has_vision_encoder": True, "vision.projector_type": "gemma4v", "vision.image_size": 224, "vision.patch_size": VISION["patch"],
         "vision.projector.scale_factor": VISION["pool"], "vision.image_mean": [0.0, 0.0, 0.0], "vision.image_std": [1.0, 1.0, 1.0],
         "has_audio_encoder": True, "audio.projector_type": "gemma4a", "audio.num_mel_bins": AUDIO["mels"]}
    for name, t in (("vision", VISION), ("audio", AUDIO)):
        g.update({f"{name}.embedding_length": t["hidden"], f"{name}.feed_forward_length": t["mlp"], f"{name}.block_count": t["layers"],
                  f"{name}.projection_dim": m["hidden"], f"{name}.attention.head_count": t["heads"],
                  f"{name}.attention.layer_norm_epsilon": 1e-6})
    out = {"general.architecture": "clip", "general.name": "random towers"}
    out.update({f"clip.{k}": v for k, v in g.items()})
    return out


def write(path, kind, meta, everything, seed=1):
    number, block, size = TYPES[kind]
    rng = np.random.default_rng(seed)
    # One pool of blocks, read from a different place each time: random enough for a clock.
    n_pool = 1 << 18
    if kind in ("q4_0", "q8_0"):
        pool = rng.integers(0, 256, (n_pool, size), dtype=np.uint8)
        pool[:, :2] = rng.uniform(0.002, 0.006, n_pool).astype(np.float16).view(np.uint8).reshape(-1, 2)
        if kind == "q8_0":
            pool[:, :2] = rng.uniform(0.0001, 0.0004, n_pool).astype(np.float16).view(np.uint8).reshape(-1, 2)
    else:
        x = rng.normal(0, 0.02, n_pool).astype(np.float32)
        pool = (x.view(np.uint8).reshape(-1, 4) if kind == "f32" else (x.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8).reshape(-1, 2))
    pool = pool.reshape(-1)

    def data(name, dims, matrix):
        if matrix:
            left = int(np.prod(dims, dtype=np.int64)) // block * size
            at = int(rng.integers(0, n_pool)) * size
            while left > 0:
                part = pool[at:at + left]
                yield part
                left -= len(part)
                at = 0
        elif name == "rope_freqs.weight":
            yield np.where(np.arange(dims[0]) < dims[0] // 4, 1.0, 1e30).astype(np.float32)
        elif name.endswith(("_min", "_max")):
            yield np.full(1, -BOUND if name.endswith("_min") else BOUND, np.float32)
        elif len(dims) > 1:
            yield rng.normal(0, 0.02, int(np.prod(dims))).astype(np.float32)
        else:
            yield np.ones(dims[0], np.float32)

    table, offset = b"", 0
    for name, dims, matrix in everything:
        table += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        table += struct.pack("<IQ", number if matrix else 0, offset)
        bytes_ = int(np.prod(dims, dtype=np.int64)) // block * size if matrix else 4 * int(np.prod(dims))
        offset += (bytes_ + 31) // 32 * 32
    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, len(everything), len(meta)))
        for k, v in meta.items():
            f.write(text(k) + value(v))
        f.write(table)
        for name, dims, matrix in everything:
            f.write(bytes(-f.tell() % 32))
            for part in data(name, dims, matrix):
                f.write(part.tobytes())
        f.write(bytes(-f.tell() % 32))


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("shape", choices=SHAPES)
    p.add_argument("type", choices=TYPES)
    p.add_argument("out")
    p.add_argument("--layers", type=int, default=0, help="only the first so many layers")
    p.add_argument("--mmproj", action="store_true", help="the vision and audio towers instead of the decoder")
    p.add_argument("--tokenizer", metavar="FOLDER", help="tokenizer.json and chat_template.jinja of a checkpoint")
    a = p.parse_args()
    m = SHAPES[a.shape]
    if a.mmproj and a.shape not in TOWERS:
        p.error("--mmproj: only the towers of " + " and ".join(TOWERS))
    if a.mmproj:
        write(a.out, a.type, tower_metadata(m), list(tower_tensors(m)))
    else:
        n_layers = a.layers or m["layers"]
        write(a.out, a.type, metadata(m, n_layers, a.tokenizer), list(tensors(m, n_layers)))
