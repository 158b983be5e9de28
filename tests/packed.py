"""Matrices packed as the libraries for small weights store them, made with numpy by the text of each format alone: what
test_export_packed.py and fuzz_export.py hand to export.py.

KINDS[name](rng, rows, cols) gives ({ending of a tensor's name: (dtype, shape, bytes)}, the values as float32, what config.json says).
"""

import json

import numpy as np

import checkpoints as make
import export

NF4 = np.array([-1, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0, 0.0795803, 0.1609302, 0.2461123, 0.33791524,
                0.44070983, 0.562617, 0.72295684, 1], np.float32)


def stream(q, bits):
    """Numbers (rows, n) -> words (rows, n * bits / 32), the lowest bit first."""
    ones = (q.astype(np.int64)[:, :, None] >> np.arange(bits) & 1).astype(np.uint8).reshape(len(q), -1)
    raw = np.packbits(ones, axis=1, bitorder="little")
    return np.pad(raw, ((0, 0), (0, -raw.shape[1] % 4))).view("<u4")


def tensor(dtype, x):
    """x as a tensor of a file."""
    if dtype == "BF16":
        return dtype, list(x.shape), export.f32_to_bf16(x).tobytes()
    kinds = {"F32": "<f4", "F16": "<f2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "I8": "i1", "U8": "u1", "F8_E4M3": "u1"}
    x = np.ascontiguousarray(x)
    return dtype, list(x.shape), (x.view(kinds[dtype]) if x.dtype.itemsize == np.dtype(kinds[dtype]).itemsize and x.dtype.kind in "iu" else
                                  x.astype(kinds[dtype])).tobytes()


def scales(rng, *shape, dtype="BF16"):
    x = rng.uniform(0.001, 0.01, shape).astype(np.float32)
    return export.bf16_to_f32(export.f32_to_bf16(x)) if dtype == "BF16" else x.astype(np.float16).astype(np.float32) if dtype == "F16" else x


def wide(a, cols):
    return np.repeat(a, cols // a.shape[1], axis=1)


def compressed(bits, group=32, dtype="BF16", zeros=False):
    def pack(rng, rows, cols):
        q = rng.integers(0, 1 << bits, (rows, cols))
        d = scales(rng, rows, cols // (group or cols), dtype=dtype)
        z = rng.integers(0, 1 << bits, d.shape) if zeros else np.full(d.shape, 1 << bits - 1)
        out = {".weight_packed": tensor("I32", stream(q, bits)), ".weight_scale": tensor(dtype, d),
               ".weight_shape": tensor("I64", np.array([rows, cols]))}
        if zeros:
            out[".weight_zero_point"] = tensor("I32", stream(z.T, bits).T)
        weights = {"num_bits": bits, "type": "int", "symmetric": not zeros, "strategy": "group" if group else "channel", "group_size": group}
        config = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": {"weights": weights}}}
        return out, (q - wide(z, cols)) * wide(d, cols), {"quantization_config": config}
    return pack


def bytes_scaled(dtype, shape, ending=".weight_scale", block=None):
    """shape(rows, cols): that of the scales."""
    def pack(rng, rows, cols):
        codes = rng.integers(0, 256, (rows, cols)).astype(np.uint8)
        if dtype == "F8_E4M3":
            codes[codes & 127 == 127] = 0
        values = codes.view(np.int8).astype(np.float32)
        if dtype == "F8_E4M3":
            mantissa, exponent = (codes & 7).astype(np.float32), (codes >> 3 & 15).astype(np.int32)
            values = np.where(exponent == 0, np.ldexp(mantissa / 8, -6), np.ldexp(1 + mantissa / 8, exponent - 7)) * np.where(codes > 127, -1, 1)
        d = scales(rng, *shape(rows, cols), dtype="F32")
        down, across = d.shape if d.ndim == 2 else (1, 1)
        high, broad = block or (rows // down, cols // across)
        each = d.reshape(down, across)[np.arange(rows)[:, None] // high, np.arange(cols)[None] // broad]
        method = {"quant_method": "fp8", "weight_block_size": block} if ending.endswith("inv") else \
            {"quant_method": "compressed-tensors", "format": "float-quantized" if dtype == "F8_E4M3" else "int-quantized"}
        out = {".weight": tensor(dtype, codes), ending: tensor("F32", d), ".input_scale": tensor("F32", np.ones(1))}
        return out, (values.astype(np.float32) * each).astype(np.float32), {"quantization_config": method}
    return pack


def bitsandbytes_8(rng, rows, cols):
    q, largest = rng.integers(-127, 128, (rows, cols)), rng.uniform(0.1, 1, rows).astype(np.float32)
    out = {".weight": tensor("I8", q.astype(np.int8)), ".SCB": tensor("F32", largest), ".weight_format": tensor("U8", np.zeros((), np.uint8))}
    config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    return out, (q * (largest / np.float32(127))[:, None]).astype(np.float32), {"quantization_config": config}


def bitsandbytes_4(double):
    def pack(rng, rows, cols):
        q, n = rng.integers(0, 16, rows * cols), -(-rows * cols // 64)
        state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [rows, cols]}
        each = scales(rng, n, dtype="F32")
        out = {".weight": tensor("U8", (q[::2] << 4 | q[1::2]).astype(np.uint8)[:, None]), ".weight.quant_map": tensor("F32", NF4)}
        if double:
            codes, table, outer = rng.integers(0, 256, n), np.linspace(-1, 1, 256).astype(np.float32), scales(rng, -(-n // 256), dtype="F32")
            each = table[codes] * np.repeat(outer, 256)[:n] + np.float32(0.02)
            state.update(nested_blocksize=256, nested_dtype="float32", nested_offset=float(np.float32(0.02)))
            out.update({".weight.absmax": tensor("U8", codes.astype(np.uint8)), ".weight.nested_absmax": tensor("F32", outer),
                        ".weight.nested_quant_map": tensor("F32", table)})
        else:
            out[".weight.absmax"] = tensor("F32", each)
        text = np.frombuffer(json.dumps(state).encode(), np.uint8)
        out[".weight.quant_state.bitsandbytes__nf4"] = tensor("U8", text)
        config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        return out, (NF4[q] * np.repeat(each, 64)[:rows * cols]).reshape(rows, cols), {"quantization_config": config}
    return pack


def by_columns(kind, bits=4, group=32, symmetric=False, version="gptq", shuffled=False):
    """AWQ and GPTQ."""
    def pack(rng, rows, cols):
        q, groups = rng.integers(0, 1 << bits, (cols, rows)), cols // group
        d, z = scales(rng, groups, rows, dtype="F16"), rng.integers(1, 1 << bits, (groups, rows))
        if symmetric:
            z[:] = 1 << bits - 1
        of = np.arange(cols) // group
        config = {"quant_method": kind, "bits": bits, "group_size": group}
        if kind == "awq":
            order = np.array([0, 2, 4, 6, 1, 3, 5, 7])
            words = lambda x: stream(x.reshape(len(x), -1, 8)[:, :, order].reshape(x.shape), 4)
            out = {".qweight": tensor("I32", words(q)), ".qzeros": tensor("I32", words(z)), ".scales": tensor("F16", d)}
        else:
            of = rng.permutation(of) if shuffled else of
            out = {".qweight": tensor("I32", stream(q.T, bits).T), ".qzeros": tensor("I32", stream(z - (version == "gptq"), bits)),
                   ".scales": tensor("F16", d), ".g_idx": tensor("I32", of)}
            config.update(checkpoint_format=version, desc_act=shuffled, sym=symmetric)
        return out, ((q - z[of]) * d[of]).T.astype(np.float32), {"quantization_config": config}
    return pack


def mlx(bits, group=32):
    def pack(rng, rows, cols):
        q, d, b = rng.integers(0, 1 << bits, (rows, cols)), scales(rng, rows, cols // group), -scales(rng, rows, cols // group)
        out = {".weight": tensor("U32", stream(q, bits)), ".scales": tensor("BF16", d), ".biases": tensor("BF16", b)}
        return out, (q * wide(d, cols) + wide(b, cols)).astype(np.float32), {"quantization": {"group_size": group, "bits": bits, "mode": "affine"}}
    return pack


def mobile(bits, parts=1):
    """Google's mobile format: a scale in float32 for each row, or for each of a table's parts of a row."""
    def pack(rng, rows, cols):
        half = 1 << bits - 1
        q, d = rng.integers(-half, half, (rows, cols)), scales(rng, rows, parts, dtype="F32")
        stored = q.astype(np.int8) if bits == 8 else np.packbits((q + half)[:, :, None] >> np.arange(bits) & 1, axis=None, bitorder="little")
        out = {".weight": tensor("I8" if bits == 8 else "U8", stored.reshape(rows, -1).view(np.int8 if bits == 8 else np.uint8)),
               ".weight_scale": tensor("F32", d), ".input_activation_scale": tensor("F32", np.float32(0.1)),
               ".output_activation_scale": tensor("F32", np.float32(0))}
        return out, (q * wide(d, cols)).astype(np.float32), {"quantization_config": {"quant_method": "gemma", "num_bits": bits}}
    return pack


KINDS = {
    "compressed-tensors, 4 bits": compressed(4), "compressed-tensors, 4 bits, groups of 16": compressed(4, 16),
    "compressed-tensors, 4 bits, rows, f16": compressed(4, 0, "F16"), "compressed-tensors, 2 bits, rows, f32": compressed(2, 0, "F32"),
    "compressed-tensors, 4 bits, zero points": compressed(4, zeros=True), "compressed-tensors, 8 bits": compressed(8),
    "compressed-tensors, 3 bits": compressed(3), "compressed-tensors, 5 bits, zero points": compressed(5, zeros=True),
    "FP8, one scale": bytes_scaled("F8_E4M3", lambda r, c: (1,)), "FP8, rows": bytes_scaled("F8_E4M3", lambda r, c: (r, 1)),
    "FP8, blocks": bytes_scaled("F8_E4M3", lambda r, c: (-(-r // 24), -(-c // 48)), ".weight_scale_inv", [24, 48]),
    "int8, rows": bytes_scaled("I8", lambda r, c: (r, 1)), "bitsandbytes, 8 bits": bitsandbytes_8,
    "bitsandbytes, nf4": bitsandbytes_4(False), "bitsandbytes, nf4, double": bitsandbytes_4(True),
    "AWQ": by_columns("awq"), "AWQ, groups of 64": by_columns("awq", group=64), "GPTQ": by_columns("gptq"),
    "GPTQ v2": by_columns("gptq", version="gptq_v2"), "GPTQ, symmetric": by_columns("gptq", symmetric=True),
    "GPTQ, order of activations": by_columns("gptq", shuffled=True), "GPTQ, 3 bits": by_columns("gptq", 3), "GPTQ, 2 bits": by_columns("gptq", 2),
    "GPTQ, 8 bits, symmetric": by_columns("gptq", 8, symmetric=True), "GPTQ, 8 bits": by_columns("gptq", 8),
    **{f"mobile QAT, {bits} bits": mobile(bits) for bits in (2, 4, 8)},
    **{f"MLX, {bits} bits": mlx(bits) for bits in (2, 3, 4, 5, 6, 8)}, "MLX, 4 bits, groups of 64": mlx(4, 64),
}


def is_matrix(name, shape):
    return name.endswith("_proj.weight") and ".layers." in name and "language_model" in name and len(shape) == 2


def checkpoint(kind, c, t, seed=1):
    """(configuration, tensors, the same with the packed matrices in float32) of a checkpoint whose projections are packed."""
    rng, c, out, plain = np.random.default_rng(seed), dict(c), {}, {}
    for name, (dtype, shape, data) in t.items():
        if not is_matrix(name, shape):
            out[name] = plain[name] = (dtype, shape, data)
            continue
        parts, values, said = KINDS[kind](rng, *shape)
        c.update(said)
        out.update({name.removesuffix(".weight") + ending: part for ending, part in parts.items()})
        plain[name] = tensor("F32", values)
    return c, out, plain


CONFIG = make.config(hidden_size=64, intermediate_size=64, head_dim=32, global_head_dim=32)
