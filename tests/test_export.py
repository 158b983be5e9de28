#!/usr/bin/env python3
"""export.py against what it reads: every tensor of a model file is decoded again here, by the text of the format alone, and compared.

    python3 tests/test_export.py [--seed N] [--skip-golden]

Part of `make test-reference`. Needs torch, transformers 5.24, gguf and the built program: fresh random models of every family member go
through export.py and the engine, and the golden data of tests/data is made again and compared with what is committed.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest.mock

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests"), os.path.join(ROOT, "tools")]

import gguf  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

import checkpoints  # noqa: E402
import export  # noqa: E402
import make_data  # noqa: E402
import random_checkpoint  # noqa: E402
import score  # noqa: E402
from score import expect  # noqa: E402

PROGRAM = os.path.join(ROOT, "gemma4")


# ---- Reading a model file, by engine/parts.h and nothing else --------------------------

def read_g4(path):
    """{name: (type, scale type, array)}; quantised arrays are values as float32, with q and scale bits behind them."""
    data = open(path, "rb").read()
    magic, version, endian, size = struct.unpack_from("<8sIIQ", data)
    assert (magic, version, endian, size) == (b"GEMMA4.C", 1, 0x01020304, len(data))
    table, n = struct.unpack_from("<QQ", data, 80)
    out = {}
    for i in range(n):
        name, kind, layout, scale, n_dims, *rest = struct.unpack_from("<64s4I3Q3Q", data, table + 128 * i)
        dims, offset, n_bytes = rest[:n_dims], rest[3], rest[4]
        assert offset % (4096 if n_dims == 3 or n_bytes >= 16 << 20 else 64) == 0
        raw = np.frombuffer(data, np.uint8, n_bytes, offset)
        name = name.rstrip(b"\0").decode()
        if layout == 0:
            out[name] = (kind, scale, raw.view("<f4").reshape(dims), None, None)
            continue
        count = dims[0] if n_dims == 3 else 1
        rows, cols = dims[-2:]
        parts = [decode_matrix(m, kind, layout, scale, rows, cols) for m in raw.reshape(count, -1)]
        if kind in NEWER:
            values, fields, _ = zip(*parts)
            fields = {key: np.concatenate([f[key] for f in fields]) for key in fields[0]}
            out[name] = (kind, scale, values[0] if n_dims == 2 else np.stack(values), fields, n_bytes)
            continue
        stack = [np.stack(x) if x[0] is not None else None for x in zip(*parts)]
        out[name] = (kind, scale, *(x[0] if x is not None and n_dims == 2 else x for x in stack))
    return out


def decode_matrix(raw, kind, layout, scale, rows, cols):
    if kind in NEWER:
        fields = fields_of(raw, kind, layout, rows, cols)
        return values_of(kind, fields)[:rows, :cols], {name: a[:rows] for name, a in fields.items()}, None
    steps = -(-cols // 64)
    wide, high = 64 * steps, -(-rows // 16) * 16 if layout == 2 else rows
    item = {0: "<f4", 1: "<u2"}.get(kind)
    if kind < 2:
        if layout == 1:
            a = raw.view(item).reshape(high, wide)
        else:
            a = raw[:high * wide * (4 if kind == 0 else 2)].view(item)
            a = a.reshape(high // 16, wide, 16).transpose(0, 2, 1) if kind == 0 else a.reshape(high // 16, wide // 2, 16, 2).transpose(0, 2, 1, 3)
            a = a.reshape(high, wide)
        a = a if kind == 0 else (a.astype(np.uint32) << 16).view(np.float32)
        assert not a[rows:].any() and not a[:, cols:].any()
        return a[:rows, :cols], None, None
    q, d = np.zeros((high, wide), np.int32), np.zeros((high, 2 * steps), np.uint16)
    if layout == 1:
        raw = raw.reshape(rows, -1)
        d[:] = raw[:, :4 * steps].copy().view("<u2")
        w = raw[:, 4 * steps:]
        if kind == 2:
            q[:] = w.view(np.int8)
        else:
            for b in range(2 * steps):
                q[:, 32 * b:32 * b + 16] = (w[:, 16 * b:16 * b + 16] & 15).astype(np.int32) - 8
                q[:, 32 * b + 16:32 * b + 32] = (w[:, 16 * b:16 * b + 16] >> 4).astype(np.int32) - 8
    else:
        size = 64 + (1024 if kind == 2 else 512)
        cells = raw[:high // 16 * steps * size].reshape(high // 16, steps, size)
        assert not raw[high // 16 * steps * size:].any()
        for g in range(high // 16):
            for s in range(steps):
                d[16 * g:16 * g + 16, 2 * s:2 * s + 2] = cells[g, s, :64].copy().view("<u2").reshape(2, 16).T
                w = cells[g, s, 64:]
                if kind == 2:
                    chunks = w.view(np.int8).reshape(16, 16, 4).astype(np.int32)
                else:
                    runs = w.reshape(8, 16, 4).astype(np.int32)
                    chunks = np.stack([(runs & 15) - 8, (runs >> 4) - 8], axis=1).reshape(16, 16, 4)
                q[16 * g:16 * g + 16, 64 * s:64 * s + 64] = chunks.transpose(1, 0, 2).reshape(16, 64)
    blocks = -(-cols // 32)
    assert not q[rows:].any() and not d[rows:].any() and not q[:, cols:].any() and not d[:, blocks:].any()
    scales = d.view(np.float16).astype(np.float32) if scale == 1 else (d.astype(np.uint32) << 16).view(np.float32)
    values = (q.reshape(high, -1, 32) * scales[:, :, None]).reshape(high, wide)
    return values[:rows, :cols], q[:rows, :cols], d[:rows, :blocks]


# Types that are GGUF's: name there; weights and bytes of a block; columns and bytes of a step of 16 rows.
NEWER = {4: ("Q4_1", 32, 20, 64, 640), 5: ("Q5_0", 32, 22, 64, 704), 6: ("Q5_1", 32, 24, 64, 768),
         7: ("Q4_K", 256, 144, 256, 2368), 8: ("Q5_K", 256, 176, 256, 2880), 9: ("Q6_K", 256, 210, 256, 3392)}


def fields_of(raw, kind, layout, rows, cols):
    """{name: array (rows, n)} of what a matrix consists of: q for each column, d and the like for each block. Padding is zero."""
    name, block, size, step, step_bytes = NEWER[kind]
    steps, groups = -(-cols // step), -(-rows // 16)
    if layout == 1:
        wide = step // block * size * steps
        assert raw.size == rows * wide
        used = -(-cols // block) * size
        assert not raw.reshape(rows, wide)[:, used:].any()
        return fields_of_blocks(kind, raw.reshape(rows, wide))
    assert not raw[groups * steps * step_bytes:].any()
    cells, at = raw[:groups * steps * step_bytes].reshape(groups, steps, step_bytes), 0

    def take(n, dtype=np.uint8):
        """n numbers of each row of every step -> (rows, steps * n); the 16 rows stand side by side."""
        nonlocal at
        width = 16 * n * np.dtype(dtype).itemsize
        part = np.ascontiguousarray(cells[:, :, at:at + width]).view(dtype).reshape(groups, steps, n, 16)
        at += width
        return part.transpose(0, 3, 1, 2).reshape(16 * groups, steps * n)

    def chunks(n):
        """n times 4 bytes of each row of every step -> (groups, steps, n, row, 4)."""
        nonlocal at
        part = cells[:, :, at:at + 64 * n].reshape(groups, steps, n, 16, 4)
        at += 64 * n
        return part

    out = {"d": take(step // block, "<u2")}
    if name in ("Q4_1", "Q5_1"):
        out["m"] = take(step // block, "<u2")
    elif name == "Q6_K":
        assert not cells[:, :, at:at + 32].any()
        at += 32
        out["sc"] = take(16, np.int8)
    elif name != "Q5_0":
        out["dmin"] = take(1, "<u2")
        both = take(16).reshape(16 * groups, steps, 8, 2)
        out["sc"], out["m"] = (both[..., i].reshape(16 * groups, -1) for i in (0, 1))
    q = np.empty((groups, steps, step // 4, 16, 4), np.uint8)
    runs = chunks(step // 8)
    q[:, :, 0::2], q[:, :, 1::2] = runs & 15, runs >> 4
    if name in ("Q5_0", "Q5_1", "Q5_K"):
        high = chunks(step // 32)
        for c in range(8):
            q[:, :, c::8] |= (high >> c & 1) << 4
    elif name == "Q6_K":
        high = chunks(step // 16)
        for c in range(4):
            q[:, :, c::4] |= (high >> 2 * c & 3) << 4
    assert at == step_bytes
    out["q"] = q.transpose(0, 3, 1, 2, 4).reshape(16 * groups, steps * step)
    for key, a in out.items():
        assert not a[rows:].any(), key
    used = -(-cols // block)
    assert not out["d"][:, used:].any() and not out["q"][:, used * block:].any()
    return out


def fields_of_blocks(kind, raw):
    """The same of GGUF's blocks (rows, bytes), weight by weight as the format describes them."""
    name, block, size, *_ = NEWER[kind]
    b = raw.reshape(-1, size)
    half = lambda at: np.ascontiguousarray(b[:, at:at + 2]).view("<u2")
    q, out = np.zeros((len(b), block), np.uint8), {"d": half(208 if name == "Q6_K" else 0)}
    if block == 32:
        if name != "Q5_0":
            out["m"] = half(2)
        for i in range(32):
            q[:, i] = b[:, size - 16 + i % 16] >> 4 * (i // 16) & 15
            if name != "Q4_1":
                q[:, i] |= (b[:, size - 20 + i // 8] >> i % 8 & 1) << 4
    elif name == "Q6_K":
        out["sc"] = b[:, 192:208].view(np.int8)
        for i in range(256):
            h, k, l = i // 128, i % 128 // 32, i % 32
            q[:, i] = (b[:, 64 * h + 32 * (k & 1) + l] >> 4 * (k >> 1) & 15) | (b[:, 128 + 32 * h + l] >> 2 * k & 3) << 4
    else:
        out["dmin"] = half(2)
        s = b[:, 4:16]
        out["sc"] = np.stack([s[:, j] & 63 if j < 4 else s[:, j + 4] & 15 | s[:, j - 4] >> 6 << 4 for j in range(8)], axis=1)
        out["m"] = np.stack([s[:, j + 4] & 63 if j < 4 else s[:, j + 4] >> 4 | s[:, j] >> 6 << 4 for j in range(8)], axis=1)
        for i in range(256):
            g, h, l = i // 64, i % 64 // 32, i % 32
            q[:, i] = b[:, size - 128 + 32 * g + l] >> 4 * h & 15
            if name == "Q5_K":
                q[:, i] |= (b[:, 16 + l] >> 2 * g + h & 1) << 4
    return {key: a.reshape(len(raw), -1) for key, a in {**out, "q": q}.items()}


def values_of(kind, f):
    """(rows, columns) float32."""
    name, block, *_ = NEWER[kind]
    number = lambda bits: bits.view(np.float16).astype(np.float32)
    spread = lambda a, n: np.repeat(a, n, axis=1)
    q, d = f["q"].astype(np.float32), spread(number(f["d"]), block)
    if name == "Q5_0":
        return d * (q - 16)
    if block == 32:
        return d * q + spread(number(f["m"]), 32)
    if name == "Q6_K":
        return d * spread(f["sc"].astype(np.float32), 16) * (q - 32)
    return d * spread(f["sc"].astype(np.float32), 32) * q - spread(number(f["dmin"]), 256) * spread(f["m"].astype(np.float32), 32)


def split_gate_up(a, width):
    """(.., 2 * pad16(width), cols) -> gate, up, each (.., width, cols)."""
    a = a.reshape(*a.shape[:-2], -1, 2, 16, a.shape[-1])
    return [a[..., i, :, :].reshape(*a.shape[:-4], -1, a.shape[-1])[..., :width, :] for i in (0, 1)]


# ---- Helpers ---------------------------------------------------------------------------------------

def save(model, folder):
    os.makedirs(folder, exist_ok=True)
    with open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
        make_data.save_folder(model, folder)
    return folder


def convert(source, out, type_="f32", **options):
    types = make_data.types(type_)
    types.update(options.pop("types", {}))
    export.export(source, out, types, quiet=True, name="test", **options)
    return read_g4(out)


def run_export(*args):
    return subprocess.run([sys.executable, os.path.join(ROOT, "export.py"), *map(str, args)], capture_output=True, text=True)


def read_bytes(path):
    with open(path, "rb") as f:
        return f.read()


def weights(model):
    """{name without model.: float32 array}"""
    return {name.removeprefix("model."): t.float().numpy() for name, t in model.state_dict().items()}


def edit_config(folder, change):
    path = os.path.join(folder, "config.json")
    config = json.load(open(path))
    change(config)
    json.dump(config, open(path, "w"))


def rewrite(folder, change):
    """Apply change to the dict of tensors of a folder's model.safetensors."""
    from safetensors.torch import load_file, save_file
    path = os.path.join(folder, "model.safetensors")
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


# ---- Numbers ----------------------------------------------------------------------------------------

def test_numbers():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((500, 32)).astype(np.float32) * np.exp(rng.standard_normal((500, 1)) * 3).astype(np.float32)
    x[0], x[1, 1:], x[2] = 0, 0, 1e-7
    x[3, :2], x[4, :2] = (9, -9), (-9, 9)  # a tie: the first largest decides
    x[5] = np.arange(32) - 15.5
    x[6:40] = export.bf16_to_f32(export.f32_to_bf16(x[6:40]))  # many ties
    for kind in ("Q8_0", "Q4_0"):
        t = export.TYPES[export.TYPE_NAMES.index(kind.lower())]
        q, (d,) = t.quantize(x, "x")
        wq, (wd,) = t.unpack(gguf.quants.quantize(x, gguf.GGMLQuantizationType[kind]))
        d, wd = np.where(d == 0x8000, 0, d), np.where(wd == 0x8000, 0, wd)  # there an all-zero block has a scale of -0
        # gguf rounds the product once (as a fused multiply-add), we round it twice: they may part where it ends in a half.
        step = export.largest(x) / (-8 if kind == "Q4_0" else 127)
        half = np.abs(np.abs(x / np.where(step == 0, 1, step)[:, None] % 1) - 0.5) < 1e-5
        expect(((q == wq) | half & (np.abs(q - wq) <= 1)).all() and (d == wd).all(), f"{kind} is the reference's")
    v = np.array([1.0, 1.00390625, 1.01171875, -3.1415927, 1e-40, 3e38], np.float32)
    expect((export.f32_to_bf16(v) == (torch.tensor(v).bfloat16().view(torch.int16).numpy().view(np.uint16))).all(), "bf16 rounding")


def lattice(rng, blocks, low=-8, high=7):
    q = rng.integers(low, high + 1, (blocks, 32))
    s = export.bf16_to_f32(export.f32_to_bf16((0.01 * np.exp(rng.standard_normal((blocks, 1)))).astype(np.float32)))
    return (q * s).astype(np.float32)


def test_lattice(scratch):
    rng = np.random.default_rng(6)
    bf16 = lambda v: export.bf16_to_f32(export.f32_to_bf16(v))
    for name, rounded in (("f32", lambda v: v), ("bf16", bf16)):
        for low, high in ((-8, 7), (-7, 7), (-3, 2), (0, 1), (-1, 0)):
            x = rounded(lattice(rng, 4000, low, high))
            q, bits, exact = export.fit_lattice(x, rounded)
            back = rounded(q * export.bf16_to_f32(bits)[:, None])
            expect(exact.all() and (back == x).all() and q.min() >= -8 and q.max() <= 7, f"lattice {name} {low}..{high}: {exact.mean():.4f} exact")
        x = rounded((rng.standard_normal((20000, 32)) * 0.02).astype(np.float32))
        expect(not export.fit_lattice(x, rounded)[2].any(), f"{name} noise is on no lattice")
    # a whole checkpoint trained that way, but for a few blocks
    model = make_data.random_model("31b", 77, hidden_size=64, intermediate_size=96, global_head_dim=32).bfloat16()
    with torch.no_grad():
        for name, t in model.named_parameters():
            if t.dim() == 2 and "norm" not in name:
                rows, cols = t.shape
                t.copy_(torch.tensor(bf16(lattice(rng, rows * cols // 32)).reshape(rows, cols)))
        model.model.layers[1].mlp.down_proj.weight[3, :32] = torch.randn(32, generator=torch.Generator().manual_seed(1))
    folder = save(model, os.path.join(scratch, "lattice"))
    r = run_export(folder, "-o", os.path.join(scratch, "lattice.g4"), "--type", "q4_0")
    said = re.search(r"4-bit lattice: (\d+) of (\d+) blocks in (\d+) tensors", r.stderr)
    expect(r.returncode == 0 and said and int(said[2]) - int(said[1]) == 1, f"lattice report: {r.stderr.strip()}")
    g4 = read_g4(os.path.join(scratch, "lattice.g4"))
    kind, scale, values, *_ = g4["l.0.q"]
    want = weights(model)["layers.0.self_attn.q_proj.weight"]
    expect((kind, scale) == (3, 2) and (bf16(values) == want).all(), "lattice tensors keep their scales in bf16 and every value")
    expect(g4["l.1.down"][1] == 2 and g4["norm"][0] == 0, "one odd block does not change a tensor's scale type")
    folder = save(make_data.random_model("31b", 78).bfloat16(), os.path.join(scratch, "plain"))
    g4 = convert(folder, os.path.join(scratch, "plain.g4"), "q4_0")
    expect(all(t[1] == (1 if t[0] >= 2 else 0) for t in g4.values()), "other checkpoints get f16 scales")


# ---- Folders ------------------------------------------------------------------------------------------

def compare_with_weights(g4, model, what, same):
    """Every tensor of the file against the model's weights; same(stored, want, name)."""
    w, c = weights(model), model.config
    plus = 1.0 if c.model_type == "gemma3_text" else 0.0
    names = {"attn_norm": "input_layernorm", "attn_post_norm": "post_attention_layernorm", "mlp_norm": "pre_feedforward_layernorm",
             "mlp_post_norm": "post_feedforward_layernorm", "mlp_post_norm1": "post_feedforward_layernorm_1",
             "mlp_post_norm2": "post_feedforward_layernorm_2", "moe_norm": "pre_feedforward_layernorm_2", "q_norm": "self_attn.q_norm",
             "k_norm": "self_attn.k_norm", "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
             "down": "mlp.down_proj", "router": "router.proj", "ple_gate": "per_layer_input_gate", "ple_proj": "per_layer_projection",
             "ple_norm": "post_per_layer_input_norm", "embed": "embed_tokens", "head": "lm_head", "ple.embed": "embed_tokens_per_layer",
             "ple.proj": "per_layer_model_projection", "ple.norm": "per_layer_projection_norm", "norm": "norm"}
    whole = {"scalar": "layer_scalar", "router_scale": "router.scale", "expert_scale": "router.per_expert_scale"}
    used = set()
    for name, (kind, scale, a, *_) in g4.items():
        layer = re.fullmatch(r"l\.(\d+)\.(.+)", name)
        prefix, leaf = (f"layers.{layer[1]}.", layer[2]) if layer else ("", name)
        if leaf.startswith("rope."):
            continue
        if leaf == "gate_up":
            gate, up = split_gate_up(a, c.intermediate_size * (2 if w[prefix + "mlp.gate_proj.weight"].shape[0] > c.intermediate_size else 1))
            pairs = [(gate, prefix + "mlp.gate_proj.weight"), (up, prefix + "mlp.up_proj.weight")]
        elif leaf == "experts.gate_up":
            both = np.concatenate(split_gate_up(a, c.moe_intermediate_size), axis=1)
            pairs = [(both, prefix + "experts.gate_up_proj")]
        elif leaf == "experts.down":
            pairs = [(a, prefix + "experts.down_proj")]
        elif leaf in whole:
            pairs = [(a, prefix + whole[leaf])]
        else:
            pairs = [(a, prefix + names[leaf] + ".weight")]
        for stored, key in pairs:
            used.add(key)
            want = w[key] + np.float32(plus) if "norm" in key else w[key]
            expect(stored.shape == want.shape and same(stored, want, name), f"{what}: {name}")
    left = {key for key in set(w) - used if not (key == "lm_head.weight" and c.tie_word_embeddings)}
    expect(not left, f"{what}: nothing left over, but {sorted(left)[:3]}")


def test_folders(scratch):
    for member in make_data.MEMBERS:
        model = make_data.random_model(member, 50)
        folder = save(model, os.path.join(scratch, member))
        g4 = convert(folder, os.path.join(scratch, member + ".g4"))
        compare_with_weights(g4, model, member + " f32", lambda a, b, name: (a == b).all())
        rotary = model.model.rotary_emb
        for kind in ("sliding", "full"):
            want = getattr(rotary, kind + "_attention_inv_freq").numpy()
            expect(np.allclose(g4["rope." + kind][2], want, rtol=1e-6, atol=0), f"{member}: rope.{kind}")
        # close to the weights in every other type; the router and vectors stay f32
        for type_, bound in (("bf16", 2 ** -8), ("q8_0", 0.57 / 127), ("q4_0", 0.13)):
            def near(a, b, name):
                if g4[name][0] == 0:
                    return (a == b).all()
                pad = -b.shape[-1] % 32
                blocks = np.pad(np.abs(b), [(0, 0)] * (b.ndim - 1) + [(0, pad)]).reshape(*b.shape[:-1], -1, 32).max(-1, keepdims=True)
                limit = np.broadcast_to(blocks, (*blocks.shape[:-1], 32)).reshape(*b.shape[:-1], -1)[..., :b.shape[-1]]
                return (np.abs(a - b) <= limit * bound).all()
            g4 = convert(folder, os.path.join(scratch, "t.g4"), type_)
            compare_with_weights(g4, model, f"{member} {type_}", near)
    # options choose the type of each group
    g4 = convert(os.path.join(scratch, "e2b"), os.path.join(scratch, "t.g4"), "q4_0")
    expect([g4[n][0] for n in ("embed", "ple.embed", "ple.proj", "l.0.ple_gate", "l.0.q")] == [3, 2, 2, 2, 3], "default types")
    r = run_export(os.path.join(scratch, "e2b"), "-o", os.path.join(scratch, "t.g4"), "--type", "q8_0", "--head-type", "bf16", "--ple-type", "q4_0")
    g4 = read_g4(os.path.join(scratch, "t.g4"))
    expect(r.returncode == 0 and [g4[n][0] for n in ("embed", "ple.embed", "l.0.ple_proj", "l.0.q")] == [1, 3, 3, 2], f"--head-type, --ple-type: {r.stderr}")


def test_variants(scratch):
    """The same weights, written in other ways, give the same file."""
    for member in ("e2b", "26b", "gemma3"):
        model = make_data.random_model(member, 51)
        folder = save(model, os.path.join(scratch, "v"))
        want = os.path.join(scratch, "want.g4")
        convert(folder, want)
        out = os.path.join(scratch, "v.g4")

        def same(what):
            convert(folder, out)
            expect(checkpoints.same_model(out, want), f"{member}: {what} gives the same file")

        # shards
        with open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
            model.save_pretrained(folder, max_shard_size="200KB")
        os.unlink(os.path.join(folder, "model.safetensors"))
        expect(os.path.exists(os.path.join(folder, "model.safetensors.index.json")), "shards were written")
        same("an index with shards")
        for name in os.listdir(folder):
            if "safetensors" in name:
                os.unlink(os.path.join(folder, name))
        save(model, folder)
        if member == "gemma3":  # as the hub wrote it before rope_parameters
            def old(c):
                c["rope_theta"], c["rope_local_base_freq"], c["rope_scaling"] = 1000000.0, 10000.0, {"rope_type": "linear", "factor": 8.0}
                del c["rope_parameters"]
            edit_config(folder, old)
            same("rope_theta, rope_local_base_freq and rope_scaling")
            continue

        def hub(c):
            full = c["per_layer_config"][str(c["layer_types"].index("full_attention"))]
            c["global_head_dim"], c["num_global_key_value_heads"] = full["head_dim"], full.get("num_key_value_heads")
            del c["per_layer_config"]
        edit_config(folder, hub)
        same("global_head_dim and num_global_key_value_heads")
        # inside a multimodal checkpoint
        edit_config(folder, lambda c: c.update({"text_config": dict(c), "model_type": "gemma4"}))
        rewrite(folder, lambda t: [t.__setitem__(name.replace("model.", "model.language_model."), t.pop(name)) for name in list(t)])
        same("the prefix of Gemma4ForConditionalGeneration")
        if member == "e2b":  # layers that share keys may carry some, a tied head may be written out, buffers too
            def more(t):
                one = torch.zeros(16, 56)
                t["model.language_model.layers.7.self_attn.k_proj.weight"] = one
                t["model.language_model.layers.7.self_attn.v_proj.weight"] = one.clone()
                t["model.language_model.layers.7.self_attn.k_norm.weight"] = torch.zeros(16)
                t["lm_head.weight"] = t["model.language_model.embed_tokens.weight"].clone()
                t["model.language_model.rotary_emb.inv_freq"] = torch.zeros(8)
                t["model.vision_tower.x"] = torch.zeros(2, 2)
            rewrite(folder, more)
            convert(folder, out, text_only=True)
            expect(checkpoints.same_model(out, want), "tensors on the ignore list change nothing")
    # f16 and bf16 storage
    for dtype in (torch.bfloat16, torch.float16):
        model = make_data.random_model("26b", 52).to(dtype)
        folder = save(model, os.path.join(scratch, "half"))
        compare_with_weights(convert(folder, os.path.join(scratch, "t.g4")), model, str(dtype), lambda a, b, name: (a == b).all())


def test_heads(scratch):
    """Which head counts, whatever the outer and the text's configuration and the weights say of it: that of the reference."""
    text = make_data.MEMBERS["e2b"][1]
    outer = transformers.Gemma4Config(text_config=dict(text), vision_config=None, audio_config=None)
    model = transformers.Gemma4ForConditionalGeneration._from_config(outer).float().eval()
    folder, out = os.path.join(scratch, "heads"), os.path.join(scratch, "h.g4")
    with open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
        model.save_pretrained(folder)
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(make_data.tiny_tokenizer(text["vocab_size"]), f)
    whole = json.load(open(os.path.join(folder, "config.json")))
    embed = "model.language_model.embed_tokens.weight"
    for outside in (True, False, None):
        for inside in (True, False, None):
            for head in ("own", "same", "none"):
                if outside is False and head == "none":  # transformers makes one up
                    continue
                config = json.loads(json.dumps(whole))
                for c, value in ((config, outside), (config["text_config"], inside)):
                    c.pop("tie_word_embeddings", None)
                    c.update({} if value is None else {"tie_word_embeddings": value})
                with open(os.path.join(folder, "config.json"), "w") as f:
                    json.dump(config, f)
                rewrite(folder, lambda t: (t.pop("lm_head.weight", None), t.update(
                    {} if head == "none" else {"lm_head.weight": t[embed].clone() if head == "same" else torch.flip(t[embed], [0])})))
                with open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
                    want = transformers.Gemma4ForConditionalGeneration.from_pretrained(folder).lm_head.weight.detach().float().numpy()
                g4 = convert(folder, out)
                expect((g4.get("head", g4["embed"])[2] == want).all(), f"head: {outside} outside, {inside} inside, {head} in the file")


def test_settings(scratch):
    """Ids, sampling and template of the configuration."""
    folder = save(make_data.random_model("e2b", 53), os.path.join(scratch, "set"))
    out = os.path.join(scratch, "set.g4")

    def config():
        convert(folder, out)
        data = read_bytes(out)
        names = [n for n, _ in export.CONFIG_FIELDS]
        values = list(export.CONFIG.unpack_from(data, struct.unpack_from("<Q", data, 48)[0]))
        at = names.index("stop")
        return dict(zip(names, values[:at] + [values[at:at + 7]] + values[at + 7:]))

    c = config()
    expect((c["flags"], c["chat_template"], c["n_stop"], c["stop"][:1]) == (1 | 2, 0, 1, [1]), "a base model: no template, stop at <eos>")
    expect((c["bos"], c["eos"], c["pad"], c["unk"]) == (2, 1, 0, 3) and c["window"] == 24 and abs(c["embed_scale"] - 56 ** 0.5) < 1e-6, "ids and numbers")
    expect(c["size"] == export.CONFIG.size == int.from_bytes(read_bytes(out)[56:64], "little") - 32 * 8, "config_size")
    json.dump({"eos_token_id": [1, 11], "temperature": 0.5, "top_k": 7, "top_p": 0.25, "do_sample": True}, open(os.path.join(folder, "generation_config.json"), "w"))
    with open(os.path.join(folder, "chat_template.jinja"), "w") as f:
        f.write("{{ '<|turn>' }} edited; preserve_thinking")
    c = config()
    expect((c["chat_template"], c["flags"] & 8, c["temperature"], c["top_k"], c["top_p"]) == (2, 8, 0.5, 7, 0.25), f"generation settings: {c}")
    names = make_data.tiny_tokenizer(370)["model"]["vocab"]
    stop = c["stop"][:c["n_stop"]]
    expect(stop == list(dict.fromkeys([1, 11, names["<turn|>"], names["<|tool_response>"]])), f"a chat stops at {stop}")
    json.dump({"do_sample": False}, open(os.path.join(folder, "generation_config.json"), "w"))
    expect(config()["temperature"] == 0.0, "do_sample false is greedy")
    for name, number in (("chat_template.jinja", 1), ("templates/e2b-2026-07.jinja", 2), ("templates/31b-2026-04.jinja", 3)):
        path = os.path.join(os.path.dirname(ROOT), "shared", "gemma4-tokenizer", name)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f, open(os.path.join(folder, "chat_template.jinja"), "w", encoding="utf-8") as g:
                g.write(f.read())
            expect(config()["chat_template"] == number, name)


# ---- Errors ---------------------------------------------------------------------------------------------

def test_errors(scratch):
    good = save(make_data.random_model("e2b", 54), os.path.join(scratch, "good"))
    outdir = os.path.join(scratch, "out")
    os.makedirs(outdir)

    def refused(source, word, *options, code=1):
        r = run_export(source, "-o", os.path.join(outdir, "x.g4"), *options)
        lines = r.stderr.strip().splitlines()
        expect(r.returncode == code and lines and word in lines[-1] and (code == 2 or len(lines) == 1) and r.stdout == "",
               f"expected exit {code} and {word!r}, got {r.returncode}: {r.stderr[-300:]}")
        expect(os.listdir(outdir) == [], f"nothing left behind after {word!r}: {os.listdir(outdir)}")

    def broken(word, change, *options):
        folder = os.path.join(scratch, "broken")
        subprocess.run(["rm", "-rf", folder], check=True)
        subprocess.run(["cp", "-r", good, folder], check=True)
        change(folder)
        refused(folder, word, *options)

    def tensors(change):
        return lambda folder: rewrite(folder, change)

    def config(**values):
        return lambda folder: edit_config(folder, lambda c: c.update(values))

    q = "model.layers.2.self_attn.q_proj.weight"
    broken("layers.2.self_attn.q_proj.weight is missing", tensors(lambda t: t.pop(q)))
    broken(f"{q} has shape (64, 55)", tensors(lambda t: t.update({q: torch.zeros(64, 55)})))
    broken("unknown tensor model.layers.0.surprise (3,)", tensors(lambda t: t.update({"model.layers.0.surprise": torch.zeros(3)})))
    broken("unknown tensor model.vision_tower.x", tensors(lambda t: t.update({"model.vision_tower.x": torch.zeros(3)})))
    broken("has type I64", tensors(lambda t: t.update({"model.ids": torch.zeros(3, dtype=torch.int64)})))
    broken(f"{q}: holds a NaN", tensors(lambda t: t[q].__setitem__((1, 1), float("nan"))))
    broken(f"{q}: holds a NaN or an infinity", tensors(lambda t: t[q].__setitem__((1, 1), float("inf"))), "--type", "f32")
    broken("too large for a block scale", tensors(lambda t: t[q].__setitem__((1, 1), 1e30)))
    broken("'llama'", config(model_type="llama"))
    broken("config has no hidden_size", config(hidden_size=None))
    broken("num_hidden_layers is 'nine'", config(num_hidden_layers="nine"))
    broken("layer_types", config(layer_types=["full_attention"]))
    broken("attention_bias", config(attention_bias=True))
    broken("use_bidirectional_attention", config(use_bidirectional_attention="all"))
    broken("hidden_activation", config(hidden_activation="silu"))
    broken("rope_type 'yarn'", config(rope_parameters={"sliding_attention": {"rope_type": "yarn", "rope_theta": 1e4}, "full_attention": {"rope_type": "yarn"}}))
    broken("not a JSON object", lambda f: open(os.path.join(f, "config.json"), "w").write("[1]"))
    broken("not JSON", lambda f: open(os.path.join(f, "config.json"), "w").write("{"))
    broken("config.json: No such file", lambda f: os.unlink(os.path.join(f, "config.json")))
    broken("tokenizer.json: No such file", lambda f: os.unlink(os.path.join(f, "tokenizer.json")))
    broken("tokenizer", lambda f: open(os.path.join(f, "tokenizer.json"), "w").write('{"model": {"type": "WordPiece"}}'))
    broken("no model.safetensors", lambda f: os.unlink(os.path.join(f, "model.safetensors")))
    broken("empty file", lambda f: open(os.path.join(f, "model.safetensors"), "w").close())
    broken("cut short", lambda f: os.truncate(os.path.join(f, "model.safetensors"), 900000))
    broken("not a safetensors file", lambda f: os.truncate(os.path.join(f, "model.safetensors"), 5))
    broken("not a safetensors file", lambda f: open(os.path.join(f, "model.safetensors"), "r+b").write(struct.pack("<Q", 50)))
    refused(os.path.join(scratch, "no", "such", "folder"), "no such file or folder")
    refused(os.path.join(scratch, "nothing.gguf"), "no such file or folder")
    refused(good, "invalid choice", "--type", "q5", code=2)
    not_gguf = os.path.join(scratch, "not.gguf")
    with open(not_gguf, "wb") as f:
        f.write(b"GGML" + bytes(100))
    refused(not_gguf, "not a GGUF file")
    r = run_export(good, "-o", os.path.join(scratch, "missing-folder", "x.g4"))
    expect(r.returncode == 1 and "No such file" in r.stderr and len(r.stderr.splitlines()) == 1, f"output folder missing: {r.stderr}")
    r = run_export(good, "-o", scratch)
    expect(r.returncode == 1 and len(r.stderr.strip().splitlines()) == 1, f"output is a folder: {r.stderr}")
    # an older file survives a failed run
    old = os.path.join(outdir, "x.g4")
    open(old, "w").write("old")
    r = run_export(os.path.join(scratch, "broken"), "-o", old)
    expect(r.returncode == 1 and open(old).read() == "old", "an older file survives")
    os.unlink(old)
    # a run that is terminated leaves nothing
    big = os.path.join(scratch, "big")
    config_ = random_checkpoint.make_config("e2b", 7, False)
    config_["text_config"].update(vocab_size=65536, vocab_size_per_layer_input=65536)
    tok = make_data.tiny_tokenizer(400)
    random_checkpoint.write_hf(random_checkpoint.random_source("e2b", config_, tok), big)
    p = subprocess.Popen([sys.executable, os.path.join(ROOT, "export.py"), big, "-o", os.path.join(outdir, "x.g4")], stderr=subprocess.PIPE, text=True)
    for _ in range(1200):
        if any(n.endswith(".partial") and os.path.getsize(os.path.join(outdir, n)) > 10e6 for n in os.listdir(outdir)) or p.poll() is not None:
            break
        time.sleep(0.05)
    p.send_signal(signal.SIGTERM)
    p.communicate()
    expect(p.returncode == 143 and os.listdir(outdir) == [], f"terminated: exit {p.returncode}, left {os.listdir(outdir)}")
    # and a whole run of the same stays small in memory
    peak = [0]
    p = subprocess.Popen([sys.executable, os.path.join(ROOT, "export.py"), big, "-o", os.path.join(outdir, "x.g4"), "--quiet"])
    while p.poll() is None:
        with contextlib.suppress(OSError, TypeError):
            status = open(f"/proc/{p.pid}/status").read()
            peak[0] = max(peak[0], int(re.search(r"RssAnon:\s+(\d+)", status)[1]))
        time.sleep(0.02)
    n_bytes = sum(os.path.getsize(os.path.join(big, n)) for n in os.listdir(big))
    print(f"export of {n_bytes / 1e6:.0f} MB: {peak[0] / 1e3:.0f} MB of anonymous memory at most")
    expect(p.returncode == 0 and peak[0] < 1.2e6, f"anonymous memory {peak[0]} kB")
    subprocess.run(["rm", "-rf", big, os.path.join(outdir, "x.g4")], check=True)


# ---- GGUF -------------------------------------------------------------------------------------------------

MADE = ("BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")  # by the gguf package; others it only reads
K_QUANTS = ("Q4_K", "Q5_K", "Q6_K")


def write_gguf(model, path, kind, rng, blocks=None):
    """What llama.cpp's converter and quantiser would make of the model, by the gguf package's own names. Returns {name: float32 values}.

    kind: a type of GGUF for all matrices, or a function (name, columns) that says one. blocks(kind, array): the blocks (n, bytes)
    of a matrix; None: those of the gguf package, and of types that it does not make any bytes with sane scales."""
    c = model.config
    arch = "gemma3" if c.model_type == "gemma3_text" else "gemma4"
    n, full = c.num_hidden_layers, [t == "full_attention" for t in c.layer_types]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3 if arch == "gemma3" else gguf.MODEL_ARCH.GEMMA4, n)
    w = gguf.GGUFWriter(path, arch)
    w.add_name("test")
    w.add_block_count(n)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_head_count(c.num_attention_heads)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_sliding_window(c.sliding_window)
    w.add_sliding_window_pattern([not f for f in full])
    w.add_rope_freq_base(c.rope_parameters["full_attention"]["rope_theta"])
    if c.final_logit_softcapping:
        w.add_final_logit_softcapping(c.final_logit_softcapping)
    values = {}
    if arch == "gemma3":
        w.add_head_count_kv(c.num_key_value_heads)
        w.add_key_length(c.head_dim)
        w.add_feed_forward_length(c.intermediate_size)
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(8.0)
    else:
        dims = [c.per_layer_config[i].head_dim for i in range(n)]
        w.add_head_count_kv([c.per_layer_config[i].num_key_value_heads for i in range(n)])
        w.add_key_length(dims[full.index(True)])
        w.add_uint32("gemma4.attention.key_length_swa", dims[full.index(False)])
        w.add_float32("gemma4.rope.freq_base_swa", c.rope_parameters["sliding_attention"]["rope_theta"])
        w.add_uint32("gemma4.embedding_length_per_layer_input", c.hidden_size_per_layer_input)
        w.add_uint32("gemma4.attention.shared_kv_layers", c.num_kv_shared_layers)
        first = n - c.num_kv_shared_layers
        w.add_feed_forward_length([c.intermediate_size * (2 if c.use_double_wide_mlp and i >= first else 1) for i in range(n)])
        if c.enable_moe_block:
            w.add_expert_count(c.num_experts)
            w.add_expert_used_count(c.top_k_experts)
            w.add_expert_feed_forward_length(c.moe_intermediate_size)
        half = dims[full.index(True)] // 2
        turned = int(half * c.rope_parameters["full_attention"]["partial_rotary_factor"])
        w.add_tensor("rope_freqs.weight", np.array([1.0] * turned + [1e30] * (half - turned), np.float32))
    tok = make_data.tiny_tokenizer(c.vocab_size)
    tokens = sorted(tok["model"]["vocab"], key=tok["model"]["vocab"].get)
    w.add_tokenizer_model("gemma4")
    w.add_token_list(tokens)
    w.add_token_types([3 if i < 24 else 6 if t.startswith("<0x") else 1 for i, t in enumerate(tokens)])
    w.add_token_merges([" ".join(m) for m in tok["model"]["merges"]])
    for key, i in (("bos", 2), ("eos", 1), ("padding", 0), ("unknown", 3)):
        w.add_uint32(f"tokenizer.ggml.{key}_token_id", i)
    for name, t in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        a = t.float().numpy()
        if name.endswith("router.scale"):
            there = names.get_name(name.replace("router.scale", "router.proj")) + ".scale"
        elif name.endswith("per_expert_scale"):
            there = names.get_name(name.replace("router.per_expert_scale", "experts.down_proj")) + ".scale"
        else:
            there = names.get_name(name, try_suffixes=(".weight",))
            there += "" if there.endswith(".weight") else ".weight"
        if arch == "gemma3" and "norm" in name:
            a = a + np.float32(1)
        is_vector = a.ndim == 1 or "router" in name
        this = "F32" if is_vector else kind if isinstance(kind, str) else kind(there, a.shape[-1])
        if this == "F32":
            w.add_tensor(there, a)
        elif this == "F16":
            a = a.astype(np.float16)
            w.add_tensor(there, a)
            a = a.astype(np.float32)
        else:
            dtype = gguf.GGMLQuantizationType[this]
            if blocks and this != "BF16":
                raw = blocks(this, a).reshape(*a.shape[:-1], -1)
            elif this in MADE:
                raw = gguf.quants.quantize(a, dtype)
            else:
                raw = checkpoints.random_blocks(rng, this, a.size // gguf.GGML_QUANT_SIZES[dtype][0]).reshape(*a.shape[:-1], -1)
            w.add_tensor(there, raw, raw_dtype=dtype)
            a = gguf.quants.dequantize(raw, dtype).reshape(a.shape)
        values[name.removeprefix("model.")] = a
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return values


def test_gguf(scratch):
    rng = np.random.default_rng(9)
    path, out = os.path.join(scratch, "m.gguf"), os.path.join(scratch, "g.g4")
    for member in make_data.MEMBERS:
        changes = {"query_pre_attn_scalar": 24} if member == "gemma3" else {}  # a GGUF does not store it: head_dim is meant
        model = make_data.random_model(member, 60, **changes)
        folder = save(model, os.path.join(scratch, "gg" + member))
        write_gguf(model, path, "F32", rng)
        a, b = convert(path, out), convert(folder, os.path.join(scratch, "h.g4"))
        expect(list(a) == list(b), f"{member}: a GGUF gives the tensors of the folder")
        for name in b:
            expect(name in a and a[name][2].shape == b[name][2].shape and (a[name][2] == b[name][2]).all(), f"{member} from GGUF: {name}")
        # the same configuration, but for what a GGUF does not know (its media ids come from the vocabulary)
        x, y = ({n: v for (n, _), v in zip([f for f in export.CONFIG_FIELDS if f[0] != "stop"], config)} for config in
                ([v for i, v in enumerate(export.CONFIG.unpack_from(read_bytes(f), 128)) if not 24 <= i < 31] for f in (out, os.path.join(scratch, "h.g4"))))
        differ = {n for n in x if x[n] != y[n] and not n.startswith(("image_", "audio_", "video_", "source"))}
        expect(not differ, f"{member}: configuration from GGUF differs in {differ}")
        layers = [read_bytes(f)[128 + export.CONFIG.size:][:32 * model.config.num_hidden_layers] for f in (out, os.path.join(scratch, "h.g4"))]
        expect(layers[0] == layers[1], f"{member}: layers from GGUF")
        expect(read_bytes(out)[:56] != b"", "")
    # block formats: widths that are multiples of 32, or of 256
    small = dict(num_key_value_heads=2, hidden_size=64, intermediate_size=96, num_attention_heads=4)
    wide = dict(num_key_value_heads=2, hidden_size=256, intermediate_size=256, num_attention_heads=4, head_dim=64, global_head_dim=128, num_hidden_layers=2,
                layer_types=["sliding_attention", "full_attention"])
    for kind in ("F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", *K_QUANTS):
        model = make_data.random_model("31b", 61, **(wide if kind in K_QUANTS else small))
        values = write_gguf(model, path, kind, rng)
        g4 = convert(path, out)
        for name, key in (("l.1.q", "layers.1.self_attn.q_proj.weight"), ("l.0.down", "layers.0.mlp.down_proj.weight"), ("embed", "embed_tokens.weight"),
                          ("l.0.v", "layers.0.self_attn.v_proj.weight"), ("norm", "norm.weight")):
            expect((g4[name][2] == values[key]).all(), f"{kind}: {name} reads as the gguf package reads it")
        gate, up = split_gate_up(g4["l.1.gate_up"][2], model.config.intermediate_size)
        expect((gate == values["layers.1.mlp.gate_proj.weight"]).all() and (up == values["layers.1.mlp.up_proj.weight"]).all(), f"{kind}: gate_up")
        if kind in ("Q8_0", "Q4_0"):  # kept bit for bit
            raw = {t.name: t.data for t in gguf.GGUFReader(path).tensors}
            for types in (kind.lower(), "auto"):
                g4 = convert(path, out, types, types={} if types == "auto" else {"ple": export.TYPE_NAMES.index(types)})
                for name, there in (("l.1.q", "blk.1.attn_q.weight"), ("l.0.down", "blk.0.ffn_down.weight"), ("embed", "token_embd.weight"),
                                    ("head", "output.weight")):
                    blocks = np.array(raw[there]).reshape(-1, 34 if kind == "Q8_0" else 18)
                    d = np.ascontiguousarray(blocks[:, :2]).view("<u2").reshape(g4[name][4].shape)
                    body = blocks[:, 2:]
                    q = body.view(np.int8) if kind == "Q8_0" else np.concatenate([body & 15, body >> 4], axis=1).astype(np.int32) - 8
                    same = g4[name][1] == 1 and (g4[name][4] == d).all() and (g4[name][3] == q.reshape(g4[name][3].shape)).all()
                    expect(same, f"{kind}: {name} kept bit for bit by --type {types}")
        r = run_export(path, "-o", out, "--type", "q4_0")
        told = re.findall(r"converted: (\d+) tensors from (\w+) to (\w+)", r.stderr)
        expect(r.returncode == 0 and bool(told) == (kind not in ("F16", "BF16", "Q4_0")), f"{kind}: what was converted is listed: {r.stderr}")
    # damage
    data = bytearray(read_bytes(path))
    for name, change, word in (("magic", lambda d: d.__setitem__(0, 0), "not a GGUF"), ("version", lambda d: d.__setitem__(4, 9), "version 9"),
                               ("kind", lambda d: d.__setitem__(slice(24, 28), b"\xff\xff\xff\xff"), "cut short"), ("arch", lambda d: d.__setitem__(slice(d.index(b"gemma4"), d.index(b"gemma4") + 6), b"llamas"), "'llamas'")):
        damaged = bytearray(data)
        change(damaged)
        with open(path, "wb") as f:
            f.write(damaged)
        r = run_export(path, "-o", out)
        expect(r.returncode == 1 and word in r.stderr and len(r.stderr.splitlines()) == 1, f"GGUF with a damaged {name}: {r.stderr}")
    for size in (0, 3, 23, 24, 100, 5000, len(data) // 2, len(data) - 100):
        with open(path, "wb") as f:
            f.write(data[:size])
        r = run_export(path, "-o", out)
        expect(r.returncode == 1 and len(r.stderr.splitlines()) == 1, f"GGUF cut to {size} bytes: {r.stderr}")
    # what tools/random_checkpoint.py writes as GGUF is the same model as its .g4
    config = random_checkpoint.make_config("26b", 7, False)
    config["text_config"].update(vocab_size=400, hidden_size=64, intermediate_size=64, num_experts=4, top_k_experts=2, moe_intermediate_size=32, head_dim=32, global_head_dim=64)
    random_checkpoint.N_VOCAB = 400
    src = lambda: random_checkpoint.random_source("26b", config, make_data.tiny_tokenizer(400))
    for kind in ("q4_0", "q8_0", "q4_1", "q5_0", "q5_1"):
        random_checkpoint.write_gguf(src(), "26b", path, kind)
        random_checkpoint.write_g4(src(), "26b", out, kind)
        a, b = read_g4(out), convert(path, os.path.join(scratch, "h.g4"), "auto")
        same = all((a[n][2] == b[n][2]).all() for n in a if n not in ("l.%d.router" % i for i in range(7)))
        expect(same, f"tools/random_checkpoint.py: GGUF and .g4 agree in {kind}")
    random_checkpoint.write_gguf(src(), "26b", path, "q4_k_m")  # here no columns are a multiple of 256
    kinds = {e: export.TYPE_NAMES[t[0]] for e, t in convert(path, out, "auto").items()}
    expect([kinds[n] for n in ("embed", "l.0.q", "l.0.gate_up", "l.1.down", "l.2.down", "l.6.experts.down")] == ["q8_0", "q5_0", "q5_0", "q5_0", "q8_0", "q8_0"],
           f"tools/random_checkpoint.py: mixture {kinds}")


# What a tensor of a model file is called in a GGUF; of pairs gate and up alternate.
GGUF_LEAVES = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "down": "ffn_down", "gate_up": ("ffn_gate", "ffn_up"),
               "experts.down": "ffn_down_exps", "experts.gate_up": "ffn_gate_up_exps", "ple_gate": "inp_gate", "ple_proj": "proj",
               "embed": "token_embd", "head": "output", "ple.embed": "per_layer_token_embd", "ple.proj": "per_layer_model_proj"}


def stored_in(g4_name, fields, tensors):
    """[(tensor of the GGUF, its fields as the model file has them)] of a tensor of newer types."""
    layer = re.fullmatch(r"l\.(\d+)\.(.+)", g4_name)
    there = GGUF_LEAVES[layer[2] if layer else g4_name]
    find = lambda name: tensors[(f"blk.{layer[1]}." if layer else "") + name + ".weight"]
    if g4_name.endswith("experts.gate_up"):
        t = find(there)
        n, both = t.data.shape[:2]
        halves = {key: split_gate_up(a.reshape(n, -1, a.shape[-1]), both // 2) for key, a in fields.items()}
        return [(t, {key: np.concatenate(a, axis=1).reshape(n * both, -1) for key, a in halves.items()})]
    if g4_name.endswith("gate_up"):
        return [(find(name), {key: split_gate_up(a, find(name).data.shape[0])[i] for key, a in fields.items()}) for i, name in enumerate(there)]
    return [(find(there), fields)]


WIDE = {"e2b": dict(hidden_size=256, intermediate_size=256, head_dim=64, global_head_dim=128, num_hidden_layers=4, num_kv_shared_layers=2,
                    layer_types=["sliding_attention", "full_attention"] * 2, hidden_size_per_layer_input=256),
        "26b": dict(hidden_size=512, intermediate_size=160, head_dim=64, global_head_dim=128, num_experts=3, top_k_experts=2,
                    moe_intermediate_size=96),
        "31b": dict(hidden_size=256, intermediate_size=512, num_attention_heads=4, num_key_value_heads=2, head_dim=64, global_head_dim=128)}


NARROW = dict(WIDE["31b"], hidden_size=320, intermediate_size=320)  # no multiples of 256


def mixed(shift):
    """A type for every matrix, one after the other; gate and up are of one, and what has no multiple of 256 columns is of 32."""
    kinds, turn, last = [name for name, *_ in NEWER.values()], iter(range(shift, 10000)), {}

    def choose(name, cols):
        if name.endswith("ffn_up.weight") and (gate := last.get(name.replace("ffn_up", "ffn_gate"))):
            return gate
        at = (shift if "token_embd" in name else next(turn)) % 6
        last[name] = next(k for k in kinds[at:] + kinds if cols % gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[k]][0] == 0)
        return last[name]
    return choose


def test_types(scratch):
    """A GGUF keeps the type of every tensor, and the model file every bit of it."""
    path, out = os.path.join(scratch, "m.gguf"), os.path.join(scratch, "m.g4")
    rng, seen, sizes = np.random.default_rng(10), set(), [0, 0]
    models = {member: make_data.random_model(member, 70, **changes) for member, changes in WIDE.items()}
    for member, shift in [("e2b", i) for i in range(6)] + [("26b", 0), ("26b", 1), ("26b", 3), ("31b", 2)]:
        write_gguf(models[member], path, mixed(shift), rng,
                   lambda kind, a: checkpoints.random_blocks(rng, kind, a.size // gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0]))
        g4, tensors = convert(path, out, "auto"), {t.name: t for t in gguf.GGUFReader(path).tensors}
        for name, (kind, scale, values, fields, n_bytes) in g4.items():
            if kind == 0:
                continue
            expect(kind in NEWER and scale == 1, f"{member}: {name} has type {kind}, scales {scale}")
            pairs = stored_in(name, fields, tensors)
            for t, found in pairs:
                raw = np.array(t.data).reshape(-1, t.data.shape[-1])
                want = fields_of_blocks(kind, raw)
                same = t.tensor_type.name == NEWER[kind][0] and all((found[key][:, :a.shape[1]] == a).all() for key, a in want.items())
                expect(same and set(found) == set(want), f"{member}: {name} of type {NEWER[kind][0]} keeps every bit")
                seen.add((kind, "experts" if values.ndim == 3 else "table" if name == "ple.embed" else "matrix"))
                if values.ndim == 2 and "gate_up" not in name:
                    same = (values == gguf.quants.dequantize(raw, t.tensor_type)).all()
                    expect(same, f"{member}: {name} of type {NEWER[kind][0]} has the values that the gguf package reads")
            if values.ndim == 2:
                sizes[0] += sum(t.data.nbytes for t, _ in pairs)
                sizes[1] += n_bytes
        if shift < 3:  # as float32
            f32 = convert(path, os.path.join(scratch, "f.g4"))
            expect(all((f32[name][2] == g4[name][2]).all() for name in g4), f"{member}: as float32")
    print(f"{len(seen)} kinds of tensors; model files hold {100 * sizes[1] / sizes[0] - 100:.2f} % more bytes than GGUFs")
    expect(len(seen) == 18 and sizes[1] <= 1.04 * sizes[0], f"sizes {sizes}, kinds {sorted(seen)}")
    # gate and up of two types: what holds both
    for gate, up, want, keeps in (("Q4_K", "Q5_K", "q5_k", [True, True]), ("Q5_0", "Q4_0", "q5_0", [True, True]), ("Q4_0", "Q8_0", "q8_0", [True, True]),
                                  ("Q4_1", "Q5_1", "q5_1", [True, True]), ("Q6_K", "Q4_K", "q6_k", [True, False]),
                                  ("F16", "Q5_0", "q8_0", [False, True]), ("BF16", "Q4_K", "bf16", [True, False])):
        kind = lambda name, cols: gate if "ffn_gate" in name else up if "ffn_up" in name else "Q8_0"
        values = write_gguf(models["31b"], path, kind, rng)
        g4 = convert(path, out, "auto")
        halves = split_gate_up(g4["l.0.gate_up"][2], 512)
        exact = [(a == values[f"layers.0.mlp.{half}_proj.weight"]).all() for a, half in zip(halves, ("gate", "up"))]
        expect(export.TYPE_NAMES[g4["l.0.gate_up"][0]] == want, f"gate {gate} and up {up} become {export.TYPE_NAMES[g4['l.0.gate_up'][0]]}")
        expect(exact == keeps, f"gate {gate} and up {up}: kept {exact}, expected {keeps}")
    # floats of a GGUF
    for kind, want in (("F16", 2), ("BF16", 1), ("F32", 1)):
        write_gguf(models["e2b"], path, kind, rng)
        g4 = convert(path, out, "auto")
        expect({g4[n][0] for n in ("embed", "ple.embed", "l.0.q", "l.0.gate_up", "l.0.ple_gate")} == {want}, f"{kind} becomes {export.TYPE_NAMES[want]}")


def test_quantise(scratch):
    """Every type from float: plain rounding, close to the weights, and the reference's where it has one."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal((300, 256)).astype(np.float32) * np.exp(rng.standard_normal((300, 1)) * 2).astype(np.float32)
    x[0], x[1, 1:], x[2, :32], x[3] = 0, 0, 0, np.abs(x[3])
    model, out = make_data.random_model("e2b", 73), os.path.join(scratch, "t.g4")
    folder, w = save(model, os.path.join(scratch, "f")), weights(model)
    for number, bound in ((4, 0.1), (5, 0.06), (6, 0.05), (7, 0.1), (8, 0.05), (9, 0.025)):
        t = export.TYPES[number]
        q, scales = t.quantize(x.reshape(-1, t.block), "x")
        raw = t.blocks(q, scales)
        back = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[t.gguf]).reshape(x.shape)
        error = np.sqrt(((back - x) ** 2).mean(axis=1) / np.maximum((x ** 2).mean(axis=1), 1e-30))
        expect((back[0] == 0).all() and np.isfinite(back).all() and error[4:].max() < bound and error[4:].mean() < 0.85 * bound,
               f"{t.name}: errors up to {error.max():.4f}, mean {error[4:].mean():.4f}")
        expect((t.dequantize(q, scales).reshape(x.shape) == back).all(), f"{t.name} is read as it was written")
        if t.gguf in MADE:
            want = gguf.quants.quantize(x, gguf.GGMLQuantizationType[t.gguf]).reshape(raw.shape)
            differ = ((raw != want) & ~((raw ^ want == 0x80) & (want == 0x80))).any(axis=1).mean()  # but for signs of zeros
            expect(differ < 0.01, f"{t.name}: {differ:.4f} of all blocks are not the reference's")
        g4 = convert(folder, out, t.name)
        for name, key in (("l.0.q", "layers.0.self_attn.q_proj.weight"), ("l.3.down", "layers.3.mlp.down_proj.weight"), ("embed", "embed_tokens.weight")):
            want = w[key]
            error = np.sqrt(((g4[name][2] - want) ** 2).mean() / (want ** 2).mean())
            expect(g4[name][0] == number and error < bound, f"{name} as {t.name}: error {error:.4f}")
        g4 = convert(folder, out, "q8_0", types={"ple": number})
        error = np.sqrt(((g4["ple.embed"][2] - w["embed_tokens_per_layer.weight"]) ** 2).mean() / (w["embed_tokens_per_layer.weight"] ** 2).mean())
        expect(g4["ple.embed"][0] == number and error < bound, f"ple.embed as {t.name}: error {error:.4f}")
    model.model.layers[0].self_attn.q_proj.weight.data[3, 5] = 3e5 * 4
    folder = save(model, os.path.join(scratch, "f"))
    for number in range(4, 10):
        name = export.TYPE_NAMES[number]
        r = run_export(folder, "-o", out, "--type", name)
        expect(r.returncode == 1 or number > 3 and r.returncode == 0, f"{name} of a large weight: {r.stderr}")


def test_others(scratch):
    """Types of GGUF that have none here are converted to the one that loses little, and this is said."""
    rng = np.random.default_rng(12)
    path, out = os.path.join(scratch, "m.gguf"), os.path.join(scratch, "m.g4")
    exact = ("TQ1_0", "TQ2_0", "MXFP4")
    models = {changes["hidden_size"]: make_data.random_model("31b", 74, **changes) for changes in (WIDE["31b"], NARROW)}
    for kind, number in export.GGUF_BECOMES.items():
        for changes in (WIDE["31b"], NARROW):
            if changes["hidden_size"] % gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0]:
                continue
            want = export.PADDED.get(number, number) if changes["hidden_size"] == 320 else number
            values = write_gguf(models[changes["hidden_size"]], path, kind, rng)
            r = run_export(path, "-o", out)
            said = re.findall(rf"converted: \d+ tensors from {kind} to {export.TYPE_NAMES[want]}(, without loss)?\n", r.stderr)
            expect(r.returncode == 0 and said == [", without loss" if kind in exact else ""], f"{kind}: {r.stderr}")
            g4, worst = read_g4(out), 0
            for name, key in (("l.1.q", "layers.1.self_attn.q_proj.weight"), ("embed", "embed_tokens.weight"), ("l.0.down", "layers.0.mlp.down_proj.weight")):
                a, b = g4[name][2], values[key]
                worst = max(worst, float(np.sqrt(((a - b) ** 2).mean() / (b ** 2).mean())))
                expect(g4[name][0] == want, f"{kind}: {name} has type {g4[name][0]}")
            expect(worst == 0 if kind in exact else worst < 0.07, f"{kind}: error {worst:.4f}")
    # without the package, or with one that does not know the type
    for kind, change, word in (("IQ4_NL", {"gguf": None}, "pip install gguf"), ("TQ2_0", {}, "pip install -U gguf"), ("MXFP4", {"gguf": None}, None)):
        write_gguf(models[256], path, kind, rng)
        with unittest.mock.patch.dict(sys.modules, change), unittest.mock.patch.object(gguf.quants, "dequantize", side_effect=NotImplementedError):
            try:
                export.export(path, out, make_data.types("auto"), quiet=True)
                said = None
            except export.ExportError as e:
                said = str(e)
        expect(said is None if word is None else said and all(x in said for x in (word, kind, path, "tensor ")), f"{kind} without gguf: {said}")
    # a scale that is no number
    def spoiled(kind, a):
        raw = checkpoints.random_blocks(rng, kind, a.size // 256)
        raw[7, :2] = 0, 0x7C
        return raw
    write_gguf(models[256], path, "Q4_K", rng, spoiled)
    r = run_export(path, "-o", out, "--quiet")
    expect(r.returncode == 1 and f"{path}: tensor token_embd.weight: holds a NaN or an infinity" in r.stderr and len(r.stderr.splitlines()) == 1, f"an infinite scale: {r.stderr}")


# ---- The engine ---------------------------------------------------------------------------------------------

def test_live(scratch, seed):
    """Fresh random models, longer prompts than the golden ones, through export.py and the program."""
    for member in make_data.MEMBERS:
        model = make_data.random_model(member, seed)
        folder = save(model, os.path.join(scratch, "live"))
        path, out = os.path.join(scratch, "live.g4"), os.path.join(scratch, "logits.f32")
        convert(folder, path)
        tokens = [2] + np.random.default_rng(seed).integers(5, model.config.vocab_size, 229).tolist()
        with torch.no_grad():
            want = model(torch.tensor([tokens]), use_cache=False).logits[0].numpy()
        r = subprocess.run([PROGRAM, "logits", "-m", path, "--tokens", ",".join(map(str, tokens)), "--all", "-o", out], capture_output=True, text=True)
        expect(r.returncode == 0, f"{member}: {r.stderr}")
        if r.returncode == 0:
            diff = float(np.abs(np.fromfile(out, "<f4").reshape(want.shape) - want).max())
            print(f"{member}: seed {seed}, {len(tokens)} tokens, largest logit difference {diff:.1e}", flush=True)
            expect(diff <= 2e-4, f"{member}: logits differ by {diff}")


def test_live_types(scratch):
    """A GGUF of mixed types through examples/simple.c, in float32, gives the logits of the reference on the same values."""
    simple, path, out = (os.path.join(scratch, name) for name in ("simple", "m.gguf", "m.g4"))
    r = subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-O2", os.path.join(ROOT, "examples", "simple.c"), "-o", simple, "-lm"], capture_output=True, text=True)
    expect(r.returncode == 0, f"examples/simple.c is built: {r.stderr}")

    def blocks(kind, a):
        t = export.TYPES[export.TYPE_NAMES.index(kind.lower())]
        return t.blocks(*t.quantize(a.reshape(-1, t.block), kind))

    for member, shift in (("e2b", 0), ("e2b", 3), ("26b", 1), ("31b", 2)):
        model = make_data.random_model(member, 75 + shift, **WIDE[member])
        values = write_gguf(model, path, mixed(shift), np.random.default_rng(1), blocks)
        convert(path, out, "auto")
        with torch.no_grad():
            for name, t in model.state_dict().items():
                t.copy_(torch.tensor(values.get(name.removeprefix("model."), values["embed_tokens.weight"])))
            tokens = [2] + np.random.default_rng(shift).integers(30, model.config.vocab_size, 39).tolist()  # no placeholders
            want = model(torch.tensor([tokens]), use_cache=False).logits[0].numpy()
        logits = os.path.join(scratch, "logits.f32")
        r = subprocess.run([simple, out, ",".join(map(str, tokens)), "0", logits], capture_output=True, text=True)
        expect(r.returncode == 0, f"{member}: {r.stderr}")
        if r.returncode == 0:
            diff = float(np.abs(np.fromfile(logits, "<f4").reshape(want.shape) - want).max())
            print(f"{member}: mixed types {shift}, {len(tokens)} tokens, largest logit difference {diff:.1e}", flush=True)
            expect(diff <= 2e-4, f"{member}: logits differ by {diff}")


def test_golden(scratch):
    """tests/make_data.py makes what is committed: the same model files, and references within float noise of another machine."""
    for member in make_data.MEMBERS:
        make_data.make(member, scratch)
    committed = os.path.join(ROOT, "tests", "data")
    for name in sorted(os.listdir(scratch)):
        if not name.startswith("text_"):
            continue
        new, old = read_bytes(os.path.join(scratch, name)), read_bytes(os.path.join(committed, name))
        if name.endswith(".g4"):
            expect(checkpoints.but_for_source(os.path.join(scratch, name)) == checkpoints.but_for_source(os.path.join(committed, name)), f"{name} is what is committed")
            continue
        head = struct.unpack_from("<8s5I", old)
        n_ids = head[1] + head[3]
        expect(new[:28] == old[:28] and new[32:32 + 4 * n_ids] == old[32:32 + 4 * n_ids], f"{name}: tokens are what is committed")
        a, b = (np.frombuffer(x[32 + 4 * n_ids:], "<f4") for x in (new, old))
        expect(a.shape == b.shape and np.abs(a - b).max() < 1e-4, f"{name}: numbers are what is committed")
    # Pictures and sound have a script of their own.
    media = os.path.join(scratch, "media")
    script = os.path.join(ROOT, "tests", "make_media_data.py")
    r = subprocess.run([sys.executable, script, media], capture_output=True, text=True)
    expect(r.returncode == 0, f"make_media_data.py: {r.stderr[-500:]}")
    for name in sorted(os.listdir(media)) if r.returncode == 0 else []:
        new, old = read_bytes(os.path.join(media, name)), read_bytes(os.path.join(committed, "media", name))
        if name.endswith(".g4"):
            expect(checkpoints.but_for_source(os.path.join(media, name)) == checkpoints.but_for_source(os.path.join(committed, "media", name)), f"media/{name} is what is committed")
        elif new != old and len(new) == len(old):  # numbers, as another CPU rounds them
            a, b = (np.frombuffer(x[:len(x) // 4 * 4], "<f4").astype(np.float64) for x in (new, old))
            with np.errstate(invalid="ignore"):
                differ = ~((a == b) | (np.abs(a - b) < 1e-3) | np.isnan(a) & np.isnan(b))
            expect(not differ.any(), f"media/{name}: {differ.sum()} numbers differ from what is committed")
        else:
            expect(new == old, f"media/{name} is what is committed")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seed", type=int, default=4242, help="of the live models")
    p.add_argument("--skip-golden", action="store_true", help="do not make the golden data again (a minute)")
    a = p.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    tests = [(test_numbers, False), (test_lattice, True), (test_folders, True), (test_variants, True), (test_heads, True), (test_settings, True), (test_errors, True),
             (test_gguf, True), (test_types, True), (test_quantise, True), (test_others, True), (test_live_types, True)]
    for test, wants_folder in tests:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            test(*[scratch] if wants_folder else [])
        print(f"{test.__name__}: {time.monotonic() - start:.1f} s, {score.passed} passed, {score.failed} failed so far", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        if os.path.exists(PROGRAM):
            test_live(scratch, a.seed)
        else:
            score.skip("the program is not built")
    if not a.skip_golden:
        with tempfile.TemporaryDirectory() as scratch:
            test_golden(scratch)
    return score.end()


if __name__ == "__main__":
    sys.exit(main())
