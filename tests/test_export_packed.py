#!/usr/bin/env python3
"""export.py and packed checkpoints of safetensors: what it reads is compared with the text of each format (packed.py), with the libraries
that write them where these are installed (else that is skipped), and what it writes with what it read. Needs numpy; tried with
compressed-tensors 0.20.1, bitsandbytes 0.50.2, mlx 0.32.4 (mlx[cpu]) and gptqmodel 7.7.0, whose sources on PYTHONPATH are enough.
Ends with the line "N passed, N failed, N skipped".
"""

import importlib.util
import os
import re
import sys
import tempfile

import checkpoints as make
import export
import packed
import score
from score import expect, skip
from test_export_files import Place, run

import numpy as np

TENSORS = make.tensors(packed.CONFIG)
# What --type auto makes of each kind, and whether nothing is lost.
BECOMES = {"compressed-tensors, 4 bits": "q4_0!", "compressed-tensors, 4 bits, groups of 16": "q5_1",
           "compressed-tensors, 4 bits, rows, f16": "q4_0!", "compressed-tensors, 2 bits, rows, f32": "q4_0",
           "compressed-tensors, 4 bits, zero points": "q4_1", "compressed-tensors, 8 bits": "q8_0!", "compressed-tensors, 3 bits": "q4_0!",
           "compressed-tensors, 5 bits, zero points": "q5_1", "int8, rows": "q8_0", "bitsandbytes, 8 bits": "q8_0",
           "bitsandbytes, nf4": "q5_1", "bitsandbytes, nf4, double": "q5_1", "GPTQ, symmetric": "q4_0!", "GPTQ, order of activations": "q5_1",
           "GPTQ, 8 bits, symmetric": "q8_0!", "GPTQ, 8 bits": "q8_0", "MLX, 5 bits": "q5_1", "MLX, 6 bits": "q8_0", "MLX, 8 bits": "q8_0",
           "mobile QAT, 2 bits": "q2_row!", "mobile QAT, 4 bits": "q4_row!", "mobile QAT, 8 bits": "q8_row!", "FP8, one scale": "q8_0",
           "FP8, rows": "q8_0", "FP8, blocks": "q8_0"}


def matrices(source, shapes=()):
    """{name: values} of all matrices of a checkpoint, as they are read; shapes: {name: what has one}, where a file does not say it."""
    src = export.open_source(source)
    sized = {name: t.sized(shapes[name].shape) if isinstance(t, export.Unsized) else t for name, t in src.tensors.items()}
    return {name: t.f32().reshape(t.shape) for name, t in sized.items() if len(t.shape) > 1}


def fields(path, name):
    """(type, scale type, q, factors, summands) of a matrix in groups16 of a model file, read by engine/parts.h, "Weight types"."""
    (kind, _, scale, n_dims, *dims), raw = make.read_tensors(path)[name]
    t = export.TYPES[kind]
    if t.name.endswith("_row"):
        return t.name, scale, *row_fields(t.name, raw, dims)
    steps, bits = -(-dims[1] // t.step), {"q8_0": 8}.get(t.name, 4)
    cells = np.frombuffer(raw, np.uint8).reshape(-1, steps, 16 * t.step_bytes)
    arrays = {"q4_1": 2, "q5_1": 2}.get(t.name, 1)
    d = cells[:, :, :64 * arrays].copy().view("<u2").reshape(len(cells), steps, arrays, 2, 16).transpose(2, 0, 4, 1, 3).reshape(arrays, -1, 2 * steps)
    d = d.view(np.float16).astype(np.float32) if scale == 1 else export.bf16_to_f32(d)
    w = cells[:, :, 64 * arrays:64 * arrays + 128 * bits]
    if bits == 8:
        q = w.copy().view(np.int8).reshape(len(cells), steps, 16, 16, 4)
    else:
        w = w.reshape(len(cells), steps, 8, 1, 16, 4)
        q = np.concatenate([w & 15, w >> 4], axis=3).reshape(len(cells), steps, 16, 16, 4).astype(np.int16)
        if t.name == "q5_1":
            high = cells[:, :, 64 * arrays + 512:].reshape(len(cells), steps, 2, 1, 16, 4)
            high = (high >> np.arange(8, dtype=np.uint8)[:, None, None] & 1).reshape(q.shape)
            q |= high.astype(np.int16) << 4
        q -= 8 if t.name == "q4_0" else 0
    q = q.transpose(0, 3, 1, 2, 4).reshape(-1, 64 * steps)
    return t.name, scale, q[:dims[0], :dims[1]], *(np.repeat(a, 32, axis=1)[:dims[0], :dims[1]] for a in d)


def row_fields(name, raw, dims):
    """(q, factors) of q2_row, q4_row and q8_row: steps of 256 columns of 16 rows, { float d[16]; the numbers of chunks of four columns }."""
    bits, steps = int(name[1]), -(-dims[1] // 256)
    cells = np.frombuffer(raw, np.uint8).reshape(-1, steps, 64 + 512 * bits)
    d = cells[:, :, :64].copy().view("<f4").transpose(0, 2, 1).reshape(-1, steps)
    w = cells[:, :, 64:].reshape(len(cells), steps, -1, 1, 16, 4) >> np.arange(0, 8, bits, dtype=np.uint8)[:, None, None] & (1 << bits) - 1
    q = w.reshape(len(cells), steps, 64, 16, 4).transpose(0, 3, 1, 2, 4).reshape(-1, 256 * steps)
    q = q.view(np.int8) if bits == 8 else q.astype(np.int16) - (1 << bits - 1)
    return q[:dims[0], :dims[1]], np.repeat(d, 256, axis=1)[:dims[0], :dims[1]]


def test_plain(place):
    """Each kind by the text of its format; what becomes of it; and what is refused."""
    for kind in packed.KINDS:
        c, tensors, plain = packed.checkpoint(kind, packed.CONFIG, TENSORS)
        want = matrices(place.folder("plain", packed.CONFIG, plain))
        got = matrices(place.folder("packed", c, tensors), want)
        worst = max(np.abs(got[name] - want[name]).max() / np.abs(want[name]).max() for name in want)
        expect(got.keys() == want.keys() and worst < 2e-7, f"{kind}: differs by {worst:.2g}")
        path = place.g4
        code, said = run(place.path("packed"), "-o", path)
        becomes, exact = (BECOMES.get(kind, "q4_1") + " ").replace("! ", " !").split(" ")[:2]
        words = rf"converted: \d+ tensors from [\w -]+ to {becomes}{', without loss' * bool(exact)}\n"
        expect(code == 0 and re.search(words, said), f"{kind} becomes {becomes}: {said}")
        name, scale, q, *d = fields(path, "l.0.q")
        values = q * d[0] + (d[1] if len(d) > 1 else 0)
        x = want["layers.0.self_attn.q_proj.weight"]
        error = np.sqrt(((values - x) ** 2).mean() / (x ** 2).mean())
        kept = name in ("q4_1", "q4_0") or "int8" in kind or "mobile" in kind or "5 bits" in kind or kind == "bitsandbytes, 8 bits"
        bound = 0 if exact else 0.0005 if kept else 0.05
        print(f"{kind}: {name}, relative error {error:.2g}")
        expect(name == becomes and error <= bound, f"{kind}: {name}, relative error {error:.2g}")
    os.unlink(path)


def test_layouts(place):
    """Experts one by one or all in one tensor, under MLX's names too, plain and packed; MLX's convolutions."""
    c = make.config(enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=64, hidden_size=64, head_dim=32,
                    global_head_dim=32, intermediate_size=64)
    t = make.tensors(c)
    want = place.convert(place.folder("whole", c, t), to="want.g4")
    single, stacked = {}, {}
    for name, (dtype, shape, data) in t.items():
        part = name.rpartition(".")[2]
        if ".experts." not in name:
            single[name] = stacked[name] = (dtype, shape, data)
            continue
        x = np.frombuffer(data, "<u2").reshape(shape)
        halves = {"gate_proj": x[:, :shape[1] // 2], "up_proj": x[:, shape[1] // 2:]} if part == "gate_up_proj" else {"down_proj": x}
        for half, y in halves.items():
            stacked[name.replace(part, f"switch_glu.{half}.weight")] = (dtype, list(y.shape), y.tobytes())
            for e in range(4):
                single[name.replace(part, f"{e}.{half}.weight")] = (dtype, list(y.shape[1:]), y[e].tobytes())
    for what, tensors in (("one by one", single), ("as MLX has them", stacked)):
        expect(make.same_model(want, place.convert(place.folder("moe", c, tensors))), f"experts {what} are the same model")
    for kind in ("compressed-tensors, 4 bits", "AWQ", "FP8, rows", "MLX, 4 bits, groups of 64"):
        said, tensors, plain = packed.checkpoint(kind, c, single)
        a = place.convert(place.folder("moe", said, tensors))
        b = place.convert(place.folder("plain", c, plain), to="plain.g4")
        a, b = make.read_tensors(a), make.read_tensors(b)
        floats = lambda t: np.frombuffer(t[1], "<f4")
        far = [name for name in b if a[name][0] != b[name][0] or not np.allclose(floats(a[name]), floats(b[name]), 1e-6, 1e-9)]
        expect(a.keys() == b.keys() and not far, f"experts in {kind}: {far}")
    for path in os.listdir(place.out):
        os.unlink(os.path.join(place.out, path))
    del single["model.language_model.layers.1.experts.2.up_proj.weight"]
    place.refused(place.folder("moe", c, single), "layers.1.experts.2.up_proj.weight is missing")
    c = make.config(towers=True)
    t = make.tensors(c)
    want = place.convert(place.folder("plain", c, t), to="want.g4")
    for name, (dtype, shape, data) in t.items():
        if name.endswith((".conv.weight", ".depthwise_conv1d.weight")):
            x = np.moveaxis(np.frombuffer(data, "<u2").reshape(shape), 1, -1)
            t[name] = (dtype, list(x.shape), x.tobytes())
    expect(make.same_model(want, place.convert(place.folder("mlx", c, t))), "MLX's convolutions are the same model")
    for path in os.listdir(place.out):
        os.unlink(os.path.join(place.out, path))


def test_settings(place):
    """What a configuration says of single matrices; scales of activations; tensors that stand beside packed ones."""
    c, tensors, plain = packed.checkpoint("MLX, 4 bits, groups of 64", packed.CONFIG, TENSORS)
    name = "model.language_model.layers.0.mlp.up_proj"
    parts, values, _ = packed.mlx(8)(np.random.default_rng(2), 64, 64)
    tensors.update({name + ending: part for ending, part in parts.items()})
    c["quantization"] = {**c["quantization"], name: {"group_size": 32, "bits": 8}, "model.language_model.x": False}
    got = matrices(place.folder("packed", c, tensors))
    expect(np.abs(got["layers.0.mlp.up_proj.weight"] - values).max() < 1e-6, "MLX: a matrix of other bits")
    place.refused(place.folder("packed", {**c, "quantization": {"bits": 4, "group_size": 64}}, tensors), "model.safetensors", name,
                  "has shape (64, 128), expected (64, 64)")
    c, tensors, plain = packed.checkpoint("FP8, rows", packed.CONFIG, TENSORS)
    said = run(place.folder("packed", c, tensors), "-o", place.g4)[1]
    expect(re.search(r"left out: \d+ tensors \(scales of activations, keys and values", said), f"scales of activations are left out, and it is said: {said}")
    for kind in ("GPTQ", "AWQ"):
        c, tensors, plain = packed.checkpoint(kind, packed.CONFIG, TENSORS)
        want = matrices(place.folder("plain", packed.CONFIG, plain))
        q = {**c["quantization_config"], "quant_method": "auto-round", "packing_format": f"auto_round:auto_{kind.lower()}"}
        got = matrices(place.folder("auto-round", {**c, "quantization_config": q}, tensors))
        expect(all(np.allclose(got[name], want[name], rtol=1e-6) for name in want), f"AutoRound writes {kind}")
    code, said = run(place.path("packed"), "-o", place.g4, "--type", "q4_0")
    expect(code == 0 and "from FP8 to q4_0" in said, f"--type forces one: {said}")
    os.unlink(place.g4)


def test_refused(place):
    """Broken ones: the file, the tensor, what it is, what was expected, or what to do."""
    def broken(kind, change, *words, base="model.language_model.layers.0.mlp.up_proj"):
        c, tensors, _ = packed.checkpoint(kind, packed.CONFIG, TENSORS)
        c = change(c, tensors, base) or c
        place.refused(place.folder("packed", c, tensors), *words, options=["--quiet"])

    def without(ending):
        return lambda c, t, base: t.pop(base + ending) and None

    def shaped(ending, *shape):
        def change(c, t, base):
            dtype, old, data = t[base + ending]
            size = len(data) // int(np.prod(old))
            t[base + ending] = (dtype, list(shape), data[:int(np.prod(shape)) * size].ljust(int(np.prod(shape)) * size, b"\0"))
        return change

    def typed(ending, dtype):
        def change(c, t, base):
            size = {"F32": 4, "I32": 4, "U8": 1, "BF16": 2}[dtype]
            t[base + ending] = (dtype, t[base + ending][1], bytes(size * int(np.prod(t[base + ending][1]))))
        return change

    ct, up = "compressed-tensors, 4 bits", "layers.0.mlp.up_proj"
    broken(ct, without(".weight_scale"), up + ".weight_scale is missing", "in a form that is not read", "bf16 checkpoint")
    broken(ct, without(".weight_shape"), up + ".weight_shape is missing")
    broken(ct, shaped(".weight_shape", 1), "model.safetensors", up, "does not hold")
    broken(ct, shaped(".weight_scale", 64, 3), up + ".weight_scale", "(64, 3)", "(64, 64)")
    broken(ct, shaped(".weight_scale", 3, 64, 2), up + ".weight_scale", "expected scales")
    broken("compressed-tensors, 4 bits, zero points", shaped(".weight_zero_point", 4, 2), "weight_zero_point", "expected (8, 2)")
    broken("FP8, one scale", typed(".weight_scale", "U8"), "weight_scale has type U8")
    broken("FP8, rows", without(".weight_scale"), up + ".weight", "FP8", "bf16 checkpoint")
    broken("bitsandbytes, nf4", shaped(".weight.absmax", 3), up, "does not fit")
    broken("bitsandbytes, nf4", shaped(".weight.quant_state.bitsandbytes__nf4", 20), up, "not JSON")
    broken("bitsandbytes, nf4, double", without(".weight.nested_absmax"), "nested_absmax is missing")
    broken("bitsandbytes, nf4, double", shaped(".weight.nested_absmax", 9), "do not fit 9")
    broken("AWQ", shaped(".qzeros", 1, 8), up, "in a form of GPTQ or AWQ that is not read", "bf16 checkpoint")
    broken("GPTQ", shaped(".g_idx", 63), "g_idx", "64 columns")
    marlin = {"quantization_config": {"quant_method": "gptq", "checkpoint_format": "marlin"}}
    broken("GPTQ", lambda c, t, base: {**c, **marlin}, "not read", "bf16 checkpoint")
    by = lambda **said: lambda c, t, base: {**c, "quantization_config": {**c["quantization_config"], **said}}
    broken("GPTQ", by(quant_method="auto-round", packing_format="auto_round:gptqmodel"), "not read", "bf16 checkpoint")
    broken("GPTQ, symmetric", by(checkpoint_format="gptq_v2"), "not read", "bf16 checkpoint")
    broken("MLX, 4 bits", without(".biases"), "only affine is read", "bf16 checkpoint")
    broken("MLX, 4 bits", lambda c, t, base: {**c, "quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}, "'mxfp4'", "only affine")
    broken("MLX, 4 bits", lambda c, t, base: {**c, "quantization": {"bits": 9}}, "bits is 9")

    def nan(ending):
        def change(c, t, base):
            dtype, shape, data = t[base + ending]
            t[base + ending] = (dtype, shape, b"\xff" * len(data))
        return change

    broken(ct, nan(".weight_scale"), "weight_scale", "NaN")
    broken("FP8, rows", nan(".weight"), up, "NaN")
    broken("bitsandbytes, nf4", nan(".weight.absmax"), up, "NaN")


# ---- Against the libraries that write them -------------------------------------------------------------------

ROWS, COLS = 48, 128


def stored(tensors):
    """Tensors of torch as they lie in a file."""
    import torch
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32", torch.int64: "I64", torch.int8: "I8",
             torch.uint8: "U8", torch.float8_e4m3fn: "F8_E4M3"}
    return {name: (names[t.dtype], list(t.shape), t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()) for name, t in tensors.items()}


def read(place, tensors, config):
    """A matrix of a checkpoint that holds these tensors of it, as it is read; the file has nothing else."""
    where = place.folder("one", {**packed.CONFIG, **config}, {"model.layers.0.mlp.up_proj" + ending: t for ending, t in tensors.items()})
    t = export.open_source(where).tensors["layers.0.mlp.up_proj.weight"]
    return (t.sized((ROWS, COLS)) if isinstance(t, export.Unsized) else t).f32()


def same(got, want, what):
    """got, unrounded float32, is what the library has rounded to its own type."""
    import torch
    mine = torch.from_numpy(got).to(want.dtype)
    differ = (mine != want).sum().item()
    print(f"{what}: {differ} of {want.numel()} values differ from the library's in {str(want.dtype)[6:]}")
    expect(mine.shape == want.shape and differ == 0, f"{what}: {differ} of {want.numel()} values differ")


def test_compressed_tensors(place):
    import torch
    from compressed_tensors.compressors import FloatQuantizationCompressor, IntQuantizationCompressor, PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    cases = [(PackedQuantizationCompressor, "pack-quantized", dict(num_bits=bits, type="int", symmetric=symmetric, strategy=strategy, **group))
             for bits in (2, 3, 4, 5, 8) for symmetric in (True, False) for strategy, group in (("group", {"group_size": 32}), ("channel", {}))]
    cases.append((IntQuantizationCompressor, "int-quantized", dict(num_bits=8, type="int", symmetric=True, strategy="channel")))
    cases += [(FloatQuantizationCompressor, "float-quantized", dict(num_bits=8, type="float", symmetric=True, strategy=strategy, **more))
              for strategy, more in (("tensor", {}), ("channel", {}), ("block", {"block_structure": [32, 64]}))]
    for i, (compressor, form, values) in enumerate(cases):
        torch.manual_seed(i)
        weights = QuantizationArgs(**values)
        shape = {"group": (ROWS, COLS // 32), "channel": (ROWS, 1), "tensor": (1,), "block": (-(-ROWS // 32), -(-COLS // 64))}[values["strategy"]]
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            state = {"weight": torch.randn(ROWS, COLS, dtype=dtype) * 0.02, "weight_scale": (torch.rand(shape) * 0.01 + 0.001).to(dtype)}
            if not values["symmetric"]:
                top = 1 << values["num_bits"] - 1
                state["weight_zero_point"] = torch.randint(-top, top, shape, dtype=torch.int8)
            scheme = QuantizationScheme(targets=["Linear"], weights=weights)
            compressed = compressor.compress(state, scheme)
            want = compressor.decompress(compressed, scheme)["weight"]
            groups = {"group_0": {"weights": {key: v for key, v in values.items()}}}
            config = {"quant_method": "compressed-tensors", "format": form, "config_groups": groups}
            got = read(place, {"." + name: t for name, t in stored(compressed).items()}, {"quantization_config": config})
            if dtype == torch.float32:  # a product of its own differs in the last bit
                expect(np.abs(got - want.numpy()).max() < 1e-5 * want.abs().max().item(), f"compressed-tensors {values}, float32")
            else:
                kind = f"{values['num_bits']} bits of {values['type']}, {values['strategy']}, {'symmetric' if values['symmetric'] else 'zero points'}"
                same(got, want, f"compressed-tensors {kind}")


def test_bitsandbytes(place):
    import bitsandbytes.functional as bnb
    import torch
    for kind in ("nf4", "fp4"):
        for double in (False, True):
            for dtype in (torch.bfloat16, torch.float16):
                q, state = bnb.quantize_4bit(torch.randn(ROWS, 2 * COLS, dtype=dtype), quant_type=kind, compress_statistics=double)
                tensors = {".weight": q, **{".weight." + name: t for name, t in state.as_dict(packed=True).items()}}
                want = bnb.dequantize_4bit(q, state)
                got = read(place, stored(tensors), {"quantization_config": {"quant_method": "bitsandbytes"}})
                same(got, want, f"bitsandbytes {kind}{', double' * double}")
    q, tops, _ = bnb.int8_vectorwise_quant(torch.randn(ROWS, COLS, dtype=torch.float16))
    got = read(place, stored({".weight": q, ".SCB": tops}), {"quantization_config": {"quant_method": "bitsandbytes"}})
    expect(np.allclose(got, bnb.int8_vectorwise_dequant(q, tops).numpy(), rtol=3e-7), "bitsandbytes of 8 bits")


def test_gptqmodel(place):
    import torch
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module
    rows = 64
    for i, (bits, symmetric, shuffled, version) in enumerate((b, s, x, v) for b in (2, 3, 4, 8) for s in (True, False) for x in (True, False)
                                                            for v in ("gptq", "gptq_v2")):
        torch.manual_seed(i)
        m = TorchLinear(bits=bits, group_size=32, sym=symmetric, desc_act=shuffled, in_features=COLS, out_features=rows, bias=False)
        m.optimize = lambda *_, **__: None  # which would compile
        d = (torch.rand(rows, COLS // 32) * 0.01 + 0.001).half().float()
        z = torch.full(d.shape, 1 << bits - 1, dtype=torch.int32) if symmetric else torch.randint(0, 1 << bits, d.shape, dtype=torch.int32)
        of = torch.arange(COLS) // 32
        of = (of[torch.randperm(COLS)] if shuffled else of).to(torch.int32)
        q = torch.randint(0, 1 << bits, (rows, COLS), dtype=torch.int32)
        linear = torch.nn.Linear(COLS, rows, bias=False)
        linear.weight.data = (q - z[:, of]) * d[:, of]
        m.pack_original(linear, d, z, of)
        m.post_init()
        want = m.dequantize_weight().T
        if version == "gptq":
            convert_gptq_v2_to_v1_format_module(m, m)
        config = {"quant_method": "gptq", "bits": bits, "checkpoint_format": version, "group_size": 32, "desc_act": shuffled}
        tensors = {"." + name: getattr(m, name).data for name in ("qweight", "qzeros", "scales", "g_idx")}
        same(read(place, stored(tensors), {"quantization_config": config}), want.half(),
             f"{version}, {bits} bits{', symmetric' * symmetric}{', order of activations' * shuffled}")
    rng = np.random.default_rng(1)
    parts, values, config = packed.by_columns("awq")(rng, rows, COLS)
    torch_of = lambda name, kind: torch.from_numpy(np.frombuffer(parts[name][2], kind).reshape(parts[name][1]).copy())
    want = dequantize_gemm(torch_of(".qweight", "<i4"), torch_of(".qzeros", "<i4"), torch_of(".scales", "<f2"), 4, 32).T
    same(read(place, parts, config), want.half(), "AWQ")


def test_mlx(place):
    import mlx.core as mx
    import torch
    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64, 128):
            for dtype in (mx.bfloat16, mx.float16):
                w = mx.array(np.random.default_rng(bits).standard_normal((ROWS, 2 * COLS)).astype(np.float32)).astype(dtype)
                parts = mx.quantize(w, group_size=group, bits=bits)
                want = mx.dequantize(*[x if i == 0 else x.astype(mx.float32) for i, x in enumerate(parts)], group_size=group, bits=bits)
                kinds = {mx.uint32: "U32", mx.bfloat16: "BF16", mx.float16: "F16"}
                tensors = {"." + name: (kinds[x.dtype], list(x.shape), bytes(memoryview(x.view(mx.uint8))))
                           for name, x in zip(("weight", "scales", "biases"), parts)}
                got = read(place, tensors, {"quantization": {"group_size": group, "bits": bits, "mode": "affine"}})
                want = np.array(want)
                print(f"MLX, {bits} bits, groups of {group}: at most {np.abs(got - want).max() / np.abs(want).max():.2g} of the largest apart")
                expect(np.abs(got - want).max() <= 1e-6 * np.abs(want).max(), f"MLX, {bits} bits, groups of {group}")


def test_transformers(place):
    """The mobile format through transformers' own quantizer: every matrix and table, bit for bit."""
    import torch
    from transformers.integrations.gemma_quant import QuantizedEmbedding, QuantizedLinear
    rng = np.random.default_rng(5)
    of = lambda t: torch.from_numpy(np.frombuffer(t[2], {"U8": "u1", "I8": "i1", "F32": "<f4"}[t[0]]).reshape(t[1]).copy())
    for bits in (2, 4, 8):
        parts, _, config = packed.mobile(bits)(rng, ROWS, COLS)
        m = QuantizedLinear(COLS, ROWS, num_bits=bits)
        m.weight.data, m.weight_scale.data = of(parts[".weight"]), of(parts[".weight_scale"])
        same(read(place, parts, config), m._dequantize_weights(), f"transformers' gemma quantizer, {bits} bits")
        parts, _, config = packed.mobile(bits, 4)(rng, ROWS, 1024)
        e = QuantizedEmbedding(ROWS, 1024, torch.float32, num_bits=bits)
        e.embedding_quantized.data, e.embedding_scale.data = of(parts[".weight"]), of(parts[".weight_scale"])
        table = {"model.language_model.embed_tokens_per_layer.embedding_quantized": parts[".weight"],
                 "model.language_model.embed_tokens_per_layer.embedding_scale": parts[".weight_scale"]}
        src = export.open_source(place.folder("table", {**packed.CONFIG, **config}, table))
        t = src.take("embed_tokens_per_layer.weight", (ROWS, 1024))
        same(t.f32(), e.weight, f"transformers' gemma quantizer, a table of {bits} bits with 4 scales a row")
        expect(export.TYPE_NAMES[t.becomes] == {2: "q2_row", 4: "q4_row", 8: "q8_row"}[bits], f"a table of {bits} bits keeps its numbers")
        # in the model file: each scale, then its part of the row as it came
        rows = export.TYPES[t.becomes].rows(*t.kept(t.becomes, 0, ROWS)).reshape(ROWS, 4, -1)
        d, q = (np.frombuffer(parts[name][2], np.uint8).reshape(ROWS, 4, -1) for name in (".weight_scale", ".weight"))
        expect(np.array_equal(rows, np.concatenate([d, q], axis=2)), f"a table of {bits} bits is written as it came")


LIBRARIES = {"transformers": test_transformers, "compressed_tensors": test_compressed_tensors, "bitsandbytes": test_bitsandbytes,
             "gptqmodel": test_gptqmodel, "mlx": test_mlx}


def main():
    export.os.fsync = lambda fd: None  # nothing here outlives the run
    tests = [test_plain, test_layouts, test_settings, test_refused]
    for library, test in LIBRARIES.items():
        if importlib.util.find_spec(library):
            tests.append(test)
        else:
            skip(f"{library} is not installed")
    for test in tests:
        with tempfile.TemporaryDirectory() as scratch:
            test(Place(scratch))
    return score.end()


if __name__ == "__main__":
    sys.exit(main())
