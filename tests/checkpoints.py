"""Small checkpoints of random numbers as the hub, llama.cpp and ollama write them, made with numpy alone: what
test_export_files.py and fuzz_export.py hand to export.py, whole, changed and broken.

A checkpoint is built in parts that stay open to changes: settings are dicts, tensors {name: (dtype, shape, bytes)}.
"""

import json
import os
import struct
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tools")]

import numpy as np  # noqa: E402

import export  # noqa: E402
import random_checkpoint  # noqa: E402

CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|image>", "<|image|>", "<image|>", "<|audio>", "<|audio|>", "<audio|>",
           "<|video|>", "<|tool_response>"]
LETTERS = [export.SPACE, *"abcdefg123", "ab", "abc", export.SPACE + "a"]
MERGES = [["a", "b"], ["ab", "c"], [export.SPACE, "a"]]
N_VOCAB = len(CONTROL) + 256 + len(LETTERS)


def tokenizer():
    tokens = CONTROL + [f"<0x{b:02X}>" for b in range(256)] + LETTERS
    return {"added_tokens": [{"id": i, "content": t, "special": True} for i, t in enumerate(CONTROL)],
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": export.SPACE},
            "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
            "model": {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "vocab": {t: i for i, t in enumerate(tokens)},
                      "merges": MERGES}}


def config(towers=False, **changes):
    text = dict(model_type="gemma4_text", vocab_size=N_VOCAB, vocab_size_per_layer_input=N_VOCAB, hidden_size=32, num_hidden_layers=3,
                intermediate_size=32, num_attention_heads=2, num_key_value_heads=1, head_dim=8, global_head_dim=16, sliding_window=16,
                hidden_size_per_layer_input=8, num_kv_shared_layers=1, use_double_wide_mlp=True, max_position_embeddings=256,
                layer_types=["sliding_attention", "full_attention", "full_attention"], rms_norm_eps=1e-6, final_logit_softcapping=30.0,
                rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                                 "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0}})
    text.update(changes)
    out = {"model_type": "gemma4", "text_config": text, "image_token_id": CONTROL.index("<|image|>"),
           "audio_token_id": CONTROL.index("<|audio|>"), "video_token_id": CONTROL.index("<|video|>")}
    if towers:
        out["vision_config"] = dict(num_hidden_layers=2, hidden_size=16, num_attention_heads=4, num_key_value_heads=4, head_dim=4,
                                    intermediate_size=24, patch_size=4, pooling_kernel_size=2, position_embedding_size=20,
                                    use_clipped_linears=True, rms_norm_eps=1e-6)
        out["audio_config"] = dict(num_hidden_layers=1, hidden_size=16, num_attention_heads=2, subsampling_conv_channels=[128, 4],
                                   conv_kernel_size=3, output_proj_dims=24, rms_norm_eps=1e-6)
    return out


def source(c):
    src = random_checkpoint.RandomSource("random")
    src.config, src.tokenizer = c, tokenizer()
    return src


def hub_name(name):
    return ("model." if name.startswith(("vision_tower.", "audio_tower.", "embed_vision.", "embed_audio.")) else "model.language_model.") + name


def tensors(c, dtype="BF16", seed=1):
    """What a checkpoint of that configuration consists of, under the hub's names."""
    rng, out = np.random.default_rng(seed), {}
    vision = c.get("vision_config")
    shapes = random_checkpoint.all_tensors(source({**c, **({"vision_config": {**vision, "num_key_value_heads": vision["num_attention_heads"]}}
                                                           if vision else {})}))[1]
    for name, shape in shapes.items():
        if vision and name.endswith(("k_proj.linear.weight", "v_proj.linear.weight")) and name.startswith("vision_tower."):
            shape = (vision["num_key_value_heads"] * vision["head_dim"], shape[1])
        x = rng.standard_normal(shape).astype(np.float32) * np.float32(shape[-1] ** -0.5)
        out[hub_name(name)] = (dtype, list(shape), (x if dtype == "F32" else export.f32_to_bf16(x)).tobytes())
    return out


def safetensors(t, change=lambda header: header):
    """The bytes of a file; change(header) is what is written as its header, an object or a text."""
    at, head = 0, {"__metadata__": {"format": "pt"}}
    for name, (dtype, shape, data) in t.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    head = change(head)
    text = head.encode() if isinstance(head, str) else json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in t.values())


def write(path, data):
    with open(path, "wb") as f:
        f.write(data if isinstance(data, bytes) else json.dumps(data).encode())


def folder(path, c, t=None, **files):
    """A checkpoint of the hub; files: further settings, with _ for a point in their names."""
    os.makedirs(path, exist_ok=True)
    write(os.path.join(path, "config.json"), c)
    write(os.path.join(path, "tokenizer.json"), tokenizer())
    write(os.path.join(path, "model.safetensors"), safetensors(tensors(c) if t is None else t))
    for name, value in files.items():
        write(os.path.join(path, name + ".json"), value)
    return path


# ---- GGUF ----------------------------------------------------------------------------------------------

TYPES = {name: number for number, name in export.GGUF_TYPES.items()}
# Where a block's numbers in f16 stand, and how many there are; the rest may be any bytes. Not of MXFP4, NVFP4 and IQ1_M.
SCALES = {"Q2_K": (80, 2), "Q3_K": (108, 1), "Q6_K": (208, 1), "TQ1_0": (52, 1), "TQ2_0": (64, 1),
          **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2))}


def random_blocks(rng, kind, n):
    """n blocks (n, bytes) of any bytes but for scales from 0.001 to 0.01."""
    size = export.GGUF_BLOCKS[kind][1]
    raw = rng.integers(0, 256, (n, size), np.uint8)
    if kind == "MXFP4":
        raw[:, 0] = rng.integers(117, 122, n)
    elif kind == "NVFP4":
        raw[:, :4] = rng.integers(0x08, 0x28, (n, 4))
    elif kind == "IQ1_M":  # the bits of one scale are the upper halves of four bytes
        raw[:, 49::2] = raw[:, 49::2] & 15 | np.array([0, 0, 0, 0x20], np.uint8)
    else:
        if kind == "TQ2_0":
            raw[:, :64] &= 0xAA
        at, scales = SCALES.get(kind, (0, 1))
        raw[:, at:at + 2 * scales] = rng.uniform(0.001, 0.01, (n, scales)).astype(np.float16).view(np.uint8)
    return raw


def as_blocks(rng, t, kinds):
    """A GGUF's tensors with random blocks in all matrices, of the first of the kinds that fits, the next ones first at the next."""
    out, turn = {}, 0
    for name, (dtype, shape, data) in t.items():
        fits = [kind for kind in kinds[turn % len(kinds):] + kinds if shape[-1] % export.GGUF_BLOCKS[kind][0] == 0]
        if len(shape) > 1 and shape[0] > 1 and fits:
            n = int(np.prod(shape)) // export.GGUF_BLOCKS[fits[0]][0]
            dtype, data, turn = fits[0], random_blocks(rng, fits[0], n).tobytes(), turn + 1
        out[name] = (dtype, shape, data)
    return out


def gguf(meta, t, alignment=32):
    """The bytes of a file. meta: {key: value}; a value that is a pair (type number, bytes) is written as it is."""
    def string(text):
        return struct.pack("<Q", len(text.encode())) + text.encode()

    head = [struct.pack("<4sIQQ", b"GGUF", 3, len(t), len(meta))]
    for key, value in meta.items():
        kind, data = value if isinstance(value, tuple) else random_checkpoint.gguf_value(value)
        head += [string(key), struct.pack("<I", kind), data]
    body = b""
    for name, (dtype, shape, data) in t.items():
        head += [string(name), struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], TYPES[dtype], len(body))]
        body += data + bytes(-len(data) % alignment)
    head = b"".join(head)
    return head + bytes(-len(head) % alignment) + body


def statistics(columns):
    """The bytes of what gemma4 calibrate writes. columns: {name: (means (matrices, columns), counts)}."""
    t = {}
    for name, (means, counts) in columns.items():
        t[name + ".count"] = ("I64", list(np.shape(counts)), np.asarray(counts, "<i8").tobytes())
        t[name] = ("F32", list(means.shape), means.astype("<f4").tobytes())
    return safetensors(t, lambda head: {**head, "__metadata__": {"format": export.Statistics.FORMAT}})


def imatrix(columns, kind="imatrix"):
    """The same as llama.cpp writes it. columns: {its name: (sums, counts)}."""
    t = {}
    for name, (sums, counts) in columns.items():
        t[name + ".in_sum2"] = ("F32", list(sums.shape), sums.astype("<f4").tobytes())
        t[name + ".counts"] = ("F32", [len(counts), 1], np.asarray(counts, "<f4").tobytes())
    return gguf({"general.type": kind}, t)


def gguf_parts(c, t):
    """(metadata, tensors) of the decoder as llama.cpp's converter writes them; t: as tensors() gives them."""
    m = export.TextModel(source(c))
    names = {b: a for a, b in export.GGUF_NAMES.items()}
    inside = {b: a for a, b in export.GGUF_LAYER_NAMES.items()}
    out = {}
    for name, tensor in t.items():
        name = export.canonical_name(name)
        block = name.split(".", 2)
        there = f"blk.{block[1]}.{inside[block[2]]}" if block[0] == "layers" else names.get(name)
        if there:
            out[there] = tensor
    pairs = m.rope["rope.full"]
    out["rope_freqs.weight"] = ("F32", [len(pairs)], np.where(pairs != 0, 1, 1e30).astype("<f4").tobytes())
    return random_checkpoint.gguf_metadata(m, source(c), "small"), out


def ollama_parts(c, t, packed_bounds=False):
    """(metadata, tensors) as ollama writes them: everything in one file, the tokenizer called llama, with merges, its scores the
    ids, no chat template, an audio tower with names of its own."""
    meta, out = gguf_parts(c, t)
    tokens = meta["tokenizer.ggml.tokens"]
    meta.update({"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "gemma4", "tokenizer.ggml.scores": [float(i) for i in range(len(tokens))],
                 "tokenizer.ggml.token_type": [3 if text in CONTROL else 1 for text in tokens], "tokenizer.ggml.eos_token_ids": [1, 5]})
    del meta["general.name"]
    if "vision_config" not in c:
        return meta, out
    vision, audio = c["vision_config"], c["audio_config"]
    keys = dict(block_count="num_hidden_layers", embedding_length="hidden_size", feed_forward_length="intermediate_size")
    meta.update({f"gemma4.vision.{there}": vision[here] for there, here in keys.items()})
    meta.update({"gemma4.vision.attention.head_count": vision["num_attention_heads"], "gemma4.vision.patch_size": vision["patch_size"],
                 "gemma4.vision.num_channels": 3, "gemma4.vision.projector.scale_factor": vision["pooling_kernel_size"],
                 "gemma4.vision.attention.layer_norm_epsilon": 1e-6, "gemma4.audio.block_count": audio["num_hidden_layers"],
                 "gemma4.audio.embedding_length": audio["hidden_size"], "gemma4.audio.feed_forward_length": 4 * audio["hidden_size"],
                 "gemma4.audio.attention.head_count": audio["num_attention_heads"], "gemma4.audio.attention.layer_norm_epsilon": 1e-6,
                 "gemma4.audio.conv_kernel_size": audio["conv_kernel_size"]})
    for name, (dtype, shape, data) in t.items():
        x = np.frombuffer(data, "<f4") if dtype == "F32" else export.bf16_to_f32(np.frombuffer(data, "<u2"))
        target, x = ollama_tower(export.canonical_name(name), x.reshape(shape), vision["patch_size"])
        if target:
            out[target] = ("F32", list(x.shape), x.tobytes())
    if packed_bounds:
        pack_bounds(out, vision["num_hidden_layers"])
    return meta, out


def ollama_tower(name, x, patch):
    """(name, array) of a tensor of the towers in a file of ollama; (None, x): it is one of the decoder's."""
    target = ollama_name(name)
    if target is None:
        return None, x
    if target == "v.patch_embd.weight":  # channels first
        x = x.reshape(len(x), patch, patch, 3).transpose(0, 3, 1, 2)
    if target.endswith("per_dim_scale.weight"):
        x = np.logaddexp(0, x.astype(np.float64))
    if target.endswith("conv_dw.weight"):
        x = x[:, 0]
    return target, np.ascontiguousarray(x.reshape(x.shape or (1,)), "<f4")


def ollama_name(name):
    """What ollama's converter calls a tensor of the towers; None: it is one of the decoder's."""
    stem, _, leaf = name.rpartition(".")
    whole = {"vision_tower.patch_embedder.position_embedding_table": "v.position_embd.weight", "vision_tower.std_bias": "v.std_bias",
             "vision_tower.std_scale": "v.std_scale"}
    parts = {"vision_tower.patch_embedder.input_proj": "v.patch_embd", "embed_vision.embedding_projection": "mm.input_projection",
             "embed_audio.embedding_projection": "mm.a.input_projection", "audio_tower.output_proj": "mm.a.fc",
             "audio_tower.subsample_conv_projection.input_proj_linear": "a.pre_encode.out"}
    for i in (0, 1):
        parts[f"audio_tower.subsample_conv_projection.layer{i}.conv"] = f"a.conv1d.{i}"
        parts[f"audio_tower.subsample_conv_projection.layer{i}.norm"] = f"a.conv1d.{i}.norm"
    if name in whole or stem in parts:
        return whole.get(name) or f"{parts[stem]}.{leaf}"
    audio = {**export.MMPROJ_AUDIO, "norm_pre_attn": "ln1", "norm_post_attn": "ln2", "norm_out": "layer_pre_norm",
             "self_attn.relative_k_proj": "linear_pos"}
    for prefix, letter, table in (("vision_tower.encoder.layers.", "v", export.MMPROJ_VISION), ("audio_tower.layers.", "a", audio)):
        if name.startswith(prefix):
            number, inside = name[len(prefix):].split(".", 1)
            if inside == "self_attn.per_dim_scale":
                return f"a.blk.{number}.per_dim_scale.weight"
            part, _, leaf = inside.rpartition(".")
            return f"{letter}.blk.{number}.{table.get(part) or table[part + '.linear']}.{leaf}"
    return None


def pack_bounds(t, layers):
    """Move the vision tower's bounds into one tensor, as older files of ollama have them."""
    packed = np.zeros((7 * layers + 1, 4), np.float32)
    linears = ("attn_q", "attn_k", "attn_v", "attn_out", "ffn_gate", "ffn_up", "ffn_down")
    for layer in range(layers):
        for i, linear in enumerate(linears):
            for j, bound in enumerate(export.BOUNDS):
                tensor = t.pop(f"v.blk.{layer}.{linear}.{bound}", None)
                if tensor:
                    packed[7 * layer + i, j] = np.frombuffer(tensor[2], "<f4")[0]
    t["v.clamp_data"] = ("F32", [packed.size], packed.tobytes())


def bounds(c, seed=3):
    """Bounds for every clipped linear of the vision tower, as tensors of a checkpoint."""
    rng, out = np.random.default_rng(seed), {}
    for layer in range(c["vision_config"]["num_hidden_layers"]):
        for part in export.CLIPPED:
            for bound in export.BOUNDS:
                value = np.float32(rng.uniform(1, 9) * (-1 if bound.endswith("min") else 1))
                out[f"model.vision_tower.encoder.layers.{layer}.{part}.{bound}"] = ("F32", [], value.tobytes())
    return out


# ---- What came of it -------------------------------------------------------------------------------------

def read_config(path):
    """{field: value} of a model file's configuration, texts without their NULs."""
    with open(path, "rb") as f:
        raw = f.read()
    values = list(export.CONFIG.unpack_from(raw, export.HEADER.unpack_from(raw)[7]))
    names = [name for name, _ in export.CONFIG_FIELDS]
    at = names.index("stop")
    values[at:at + 7] = [values[at:at + 7]]
    return {name: v.rstrip(b"\0").decode() if isinstance(v, bytes) else v for name, v in zip(names, values)}


def read_tensors(path):
    """{name: (entry without its place, bytes)} of a model file."""
    with open(path, "rb") as f:
        raw = f.read()
    head = export.HEADER.unpack_from(raw)
    entries = [export.ENTRY.unpack_from(raw, head[11] + i * export.ENTRY.size) for i in range(head[12])]
    return {e[0].rstrip(b"\0").decode(): (e[1:8], raw[e[8]:e[8] + e[9]]) for e in entries}


def read_tokenizer(path):
    """The tokenizer of a model file."""
    with open(path, "rb") as f:
        raw = f.read()
    head = export.HEADER.unpack_from(raw)
    return raw[head[9]:head[9] + head[10]]


def but_for_source(path):
    """All that a model file holds but for what it was made from, which stands behind the rest of the configuration; files from
    before that was written are the same in this."""
    with open(path, "rb") as f:
        raw = f.read()
    at, size = export.HEADER.unpack_from(raw)[7:9]
    fixed, layer = struct.unpack_from("<II", raw, at)
    known = struct.calcsize("<" + "".join(fmt for name, fmt in export.CONFIG_FIELDS if not name.startswith("source")))
    return raw[at + 8:at + known], layer, raw[at + fixed:at + size], read_tokenizer(path), read_tensors(path)


def same_model(a, b):
    """Are two model files the same but for what they were made from?"""
    return but_for_source(a) == but_for_source(b)
