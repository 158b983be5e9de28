#!/usr/bin/env python3
"""Write a checkpoint of a family member's real size with random weights: it says nothing, at the speed of the real one.

    python3 tools/random_checkpoint.py --size e2b|e4b|26b|31b -o OUT [--format hf|g4|gguf] [--type q4_0] [--layers N] [--towers]

  hf    a folder with config.json, safetensors in bf16 and tokenizer.json, as the hub would hold it
  g4    a model file, as export.py would make it of that folder, without the detour (26B in bf16 is 52 GB)
  gguf  what llama.cpp loads, with the types of `llama-quantize --pure` or the mixture q4_k_m (the decoder only)

Everything is streamed: memory stays small. The tokenizer is the real one where --tokenizer finds a tokenizer.json or
tokenizer.json.xz (default: ../shared/gemma4-tokenizer), else a made-up one of the same size. Weights are scaled so that activations
stay finite. --layers leaves out all layers but the first N - 1 and the last.
"""

import argparse
import json
import lzma
import os
import re
import struct
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import numpy as np  # noqa: E402

import export  # noqa: E402

# As the hub's config.json gives them (MODEL.md has the table).
TEXT = {
    "e2b": dict(hidden_size=1536, num_hidden_layers=35, intermediate_size=6144, num_attention_heads=8, num_key_value_heads=1,
                hidden_size_per_layer_input=256, num_kv_shared_layers=20, use_double_wide_mlp=True, sliding_window=512, every=5,
                max_position_embeddings=131072),
    "e4b": dict(hidden_size=2560, num_hidden_layers=42, intermediate_size=10240, num_attention_heads=8, num_key_value_heads=2,
                hidden_size_per_layer_input=256, num_kv_shared_layers=18, sliding_window=512, every=6, max_position_embeddings=131072),
    "26b": dict(hidden_size=2816, num_hidden_layers=30, intermediate_size=2112, num_attention_heads=16, num_key_value_heads=8,
                num_global_key_value_heads=2, attention_k_eq_v=True, hidden_size_per_layer_input=0, enable_moe_block=True, num_experts=128,
                top_k_experts=8, moe_intermediate_size=704, use_bidirectional_attention="vision", sliding_window=1024, every=6,
                max_position_embeddings=262144),
    "31b": dict(hidden_size=5376, num_hidden_layers=60, intermediate_size=21504, num_attention_heads=32, num_key_value_heads=16,
                num_global_key_value_heads=4, attention_k_eq_v=True, hidden_size_per_layer_input=0, use_bidirectional_attention="vision",
                sliding_window=1024, every=6, max_position_embeddings=262144),
}
SMALL_VISION = dict(hidden_size=768, num_hidden_layers=16, num_attention_heads=12, num_key_value_heads=12, head_dim=64, intermediate_size=3072,
                    use_clipped_linears=True, standardize=False)
LARGE_VISION = dict(hidden_size=1152, num_hidden_layers=27, num_attention_heads=16, num_key_value_heads=16, head_dim=72,
                    intermediate_size=4304, use_clipped_linears=False, standardize=True)
VISION = dict(patch_size=16, pooling_kernel_size=3, position_embedding_size=10240, rms_norm_eps=1e-6)
AUDIO = dict(hidden_size=1024, num_hidden_layers=12, num_attention_heads=8, subsampling_conv_channels=[128, 32], conv_kernel_size=5,
             output_proj_dims=1536, rms_norm_eps=1e-6)
N_VOCAB = 262144
MEDIA = dict(boi_token_id=255999, image_token_id=258880, eoi_token_id=258882, boa_token_id=256000, audio_token_id=258881, eoa_token_index=258883,
             video_token_id=258884)


def make_config(size, n_layers, towers):
    text = dict(TEXT[size], model_type="gemma4_text", vocab_size=N_VOCAB, head_dim=256, global_head_dim=512, rms_norm_eps=1e-6,
                final_logit_softcapping=30.0, tie_word_embeddings=True, hidden_activation="gelu_pytorch_tanh", bos_token_id=2, eos_token_id=1,
                pad_token_id=0, rope_parameters={
                    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                    "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0}})
    every, n = text.pop("every"), text["num_hidden_layers"]
    types = ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(n)]
    if n_layers:
        if not every < n_layers <= n:
            raise SystemExit(f"random_checkpoint.py: --layers must be {every + 1} to {n} for {size}")
        types = types[:n_layers - 1] + [types[-1]]
        text["num_kv_shared_layers"] = min(text.get("num_kv_shared_layers", 0), n_layers - every)
        text["num_hidden_layers"] = n_layers
    text["layer_types"] = types
    if text["hidden_size_per_layer_input"]:
        text["vocab_size_per_layer_input"] = N_VOCAB
    config = {"architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4", "text_config": text, "tie_word_embeddings": True, **MEDIA}
    if towers:
        config["vision_config"] = dict(SMALL_VISION if text["hidden_size_per_layer_input"] else LARGE_VISION, model_type="gemma4_vision", **VISION)
        if text["hidden_size_per_layer_input"]:
            config["audio_config"] = dict(AUDIO, model_type="gemma4_audio")
    return config


def find_tokenizer(path):
    for name in (path, os.path.join(path, "tokenizer.json"), os.path.join(path, "tokenizer.json.xz")) if path else ():
        if os.path.isfile(name):
            with (lzma.open if name.endswith(".xz") else open)(name, "rt", encoding="utf-8") as f:
                return json.load(f)
    print("random_checkpoint.py: no tokenizer found; a made-up one of the same size is used", file=sys.stderr)
    control = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 105: "<|turn>", 106: "<turn|>", 255999: "<|image>", 256000: "<|audio>",
               258880: "<|image|>", 258881: "<|audio|>", 258882: "<image|>", 258883: "<audio|>", 258884: "<|video|>"}
    texts = {**control, **{238 + b: f"<0x{b:02X}>" for b in range(256)}, 4: "\u2581", **{494 + i: chr(33 + i) for i in range(94)}}
    words = (f"\u2581{i}" for i in range(N_VOCAB))
    vocab = {texts[i] if i in texts else next(words): i for i in range(N_VOCAB)}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"added_tokens": [{"id": i, "content": t, **flags} for i, t in control.items()],
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}, "pre_tokenizer": None,
            "model": {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "vocab": vocab, "merges": [["a", "b"]] if "ab" in vocab else []}}


class RandomTensor(export.Stored):
    """Any rows are cut from pools of random numbers at a place that depends on the tensor's name, so they cost next to nothing.
    The pools repeat after SIZE elements, so that a row is the same however the tensor is cut into slices."""

    SIZE = 1 << 22
    rng = np.random.default_rng(1)
    q8 = np.tile(rng.integers(-127, 128, SIZE, np.int8), 2)
    q4 = np.tile(rng.integers(-8, 8, SIZE, np.int8), 2)
    sub_scales = np.tile(np.repeat(rng.integers(32, 64, SIZE // 32, np.int8), 2), 2)  # in pairs: of a scale and a minimum
    spread = np.tile((1 + 0.2 * rng.standard_normal(SIZE // 32)).astype(np.float32), 2)  # of block scales, norms and the like

    def __init__(self, name, shape):
        self.seed = sum(name.encode()) * 7919 * 64
        super().__init__(name, shape, "BF16", None)

    @property
    def data(self):
        """The whole tensor as it would lie in a file."""
        return export.f32_to_bf16(self.f32()).reshape(-1)

    @data.setter
    def data(self, _):
        pass

    def cut(self, pool, at, n):
        if 2 * n > len(pool):
            raise ValueError(f"{self.name}: {n} elements at once")
        start = (self.seed + at) % (len(pool) // 2)
        return pool[start:start + n]

    def f32(self, r0=0, r1=None):
        r1 = self.rows if r1 is None else r1
        n = (r1 - r0) * self.cols
        if len(self.shape) == 1:  # norms, scalars, scales
            return self.cut(self.spread, 0, n).reshape(r1 - r0, self.cols)
        if n > self.SIZE:  # a table that is asked for whole
            step = self.SIZE // self.cols
            return np.concatenate([self.f32(r, min(r1, r + step)) for r in range(r0, r1, step)])
        return self.cut(self.q8, r0 * self.cols, n).reshape(r1 - r0, self.cols) * np.float32(self.cols ** -0.5 / 73)

    def kept(self, type_, r0, r1):
        t = export.TYPES[type_]
        if not t.scales:
            return None
        top = (1 << t.bits - 1) - 1  # of the signed numbers; those that are stored are larger by zero, or by the minimum
        pool, deviation = (self.q8, 73.0) if t.bits == 8 else (self.q4, 4.6)
        q = self.cut(pool, r0 * self.cols, (r1 - r0) * self.cols).reshape(r1 - r0, self.cols)
        if t.bits == 2:
            q, deviation = q >> 2, 1.1
        if 4 < t.bits < 8:  # one more bit or two, from the same pool
            more = self.cut(self.q8, r0 * self.cols, (r1 - r0) * self.cols).reshape(q.shape) & np.int8((1 << t.bits - 4) - 1)
            q, deviation = (q << np.int8(t.bits - 4)) | more, deviation * (1 << t.bits - 4)
        has_minimum = len(t.scales) > 1 and t.zero == 0
        if t.zero or has_minimum:
            q = q + np.int8(top + 1)
        scales = []
        for i, (dtype, n) in enumerate(t.scales):
            at, count = r0 * self.cols // n, (r1 - r0) * self.cols // n
            if dtype == "<u2":
                d = self.cut(self.spread, at, count) * np.float32(self.cols ** -0.5 / deviation / (48 if t.block > 32 else 1))
                d *= np.float32(1 if i == 0 else top + 1 if t.block > 32 else -top - 1)
                scales.append(d.astype(np.float16).view(np.uint16).reshape(r1 - r0, -1))
            elif dtype == "<f4":
                d = self.cut(self.spread, at, count) * np.float32(self.cols ** -0.5 / deviation)
                scales.append(d.reshape(r1 - r0, -1))
            else:
                scales.append(self.cut(self.sub_scales, at, count).astype(dtype).reshape(r1 - r0, -1))
        return q, scales


class RandomSource(export.Source):
    """A checkpoint that has every tensor that is asked for, of the shape that is expected."""
    static = False  # has it static scales of activations, as mobile ones have?

    def has(self, name):
        return "experts.gate_up_proj" in name

    def has_static_scales(self):
        return self.static

    def static_scale(self, name):
        return 0.0 if name.startswith(("lm_head", "per_layer_model_projection")) else 0.05

    def take(self, name, shape):
        self.used.add(name)
        return self.tensors.setdefault(name, RandomTensor(name, shape))


class Recorder(export.ModelFile):
    """A model file that is never written; making it asks the source for all its tensors."""

    def plain(self, name, array):
        pass


def random_source(size, config, tokenizer):
    src = RandomSource("random-" + size)
    src.config, src.tokenizer = config, tokenizer
    src.generation = {"bos_token_id": 2, "eos_token_id": [1, 106], "pad_token_id": 0, "do_sample": True, "temperature": 1.0, "top_k": 64, "top_p": 0.95}
    return src


def all_tensors(src):
    """{canonical name: shape} of everything the checkpoint consists of."""
    m = export.TextModel(src)
    out, types = Recorder(), dict.fromkeys(("type", "ple", "head", "vision", "audio"), export.F32)
    export.text_tensors(src, m, out, types)
    export.tower_tensors(src, m, out, {}, types, False)
    return m, {name: t.shape for name, t in src.tensors.items()}


class Mobile(export.Auto):
    """The types of Google's mobile files of E2B and E4B."""

    def __init__(self, size):
        super().__init__({})
        e2b, two, four = size == "e2b", export.Q2_ROW, export.Q4_ROW
        self.types = ((r"embed_tokens\.|lm_head\.", two), (r"embed_tokens_per_layer\.", four if e2b else two),
                      (r"per_layer_model_|embed_|output_proj|subsample|patch_", export.BF16), (r".*per_layer_|vision_", export.Q8_ROW),
                      (r".*linear_start", four), (r"audio_", two), ("", four))
        self.wide = 12288 if e2b else 0  # the feed-forward blocks of the layers that share keys have 2 bits

    def choose(self, parts, rows, cols):
        if self.wide in (rows, cols):
            return export.Q2_ROW
        return next(type_ for pattern, type_ in self.types if re.match(pattern, parts[0][0][0].name))


def write_g4(src, size, path, type_name):
    m = export.TextModel(src)
    t = Mobile(size) if type_name == "mobile" else export.TYPE_NAMES.index(type_name)
    careful = t if type_name in ("f32", "bf16", "mobile") else export.Q8_0
    src.static = type_name == "mobile"
    types = {"type": t, "head": t, "ple": careful, "vision": careful, "audio": careful}
    blob, specials = export.tokenizer_blob(src.tokenizer, m.n_vocab)
    config, layers = export.model_config(src, m, "random-" + size, specials, [])
    out = export.ModelFile()
    out.choose_scales = lambda: [setattr(e, "scale", export.SCALE_F16) for e in out.entries
                                 if export.TYPES[e.type].scales and not isinstance(export.TYPES[e.type], export.RowType)]
    export.text_tensors(src, m, out, types)
    export.tower_tensors(src, m, out, config, types, False)
    progress = export.Progress(sum(e.size for e in out.entries), False)
    out.write(path, config, layers, blob, progress)
    progress.close()


def slices(t):
    """Row ranges of at most a pool's worth of elements."""
    step = max(1, RandomTensor.SIZE // t.cols)
    return [(r, min(t.rows, r + step)) for r in range(0, t.rows, step)]


def write_hf(src, path):
    """bf16 safetensors in files of about 4 GB, with their index."""
    _, shapes = all_tensors(src)
    os.makedirs(path, exist_ok=True)
    shards, size = [[]], 0
    for name, shape in shapes.items():
        n = 2 * int(np.prod(shape))
        if size + n > 4e9 and shards[-1]:
            shards.append([])
            size = 0
        size += n
        shards[-1].append(name)
    progress = export.Progress(sum(2 * int(np.prod(s)) for s in shapes.values()), False)
    weight_map = {}
    for i, names in enumerate(shards):
        file = "model.safetensors" if len(shards) == 1 else f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        header, at = {}, 0
        for name in names:
            tower = name.startswith(("vision_tower.", "audio_tower.", "embed_"))
            full = ("model." if tower and not name.startswith("embed_tokens") else "model.language_model.") + name
            n = 2 * int(np.prod(shapes[name]))
            header[full] = {"dtype": "BF16", "shape": list(shapes[name]), "data_offsets": [at, at + n]}
            weight_map[full] = file
            at += n
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(os.path.join(path, file), "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for name in names:
                t = RandomTensor(name, shapes[name])
                for r0, r1 in slices(t):
                    f.write(export.f32_to_bf16(t.f32(r0, r1)).tobytes())
                    progress(2 * (r1 - r0) * t.cols)
    progress.close()
    if len(shards) > 1:
        with open(os.path.join(path, "model.safetensors.index.json"), "w", encoding="utf-8") as f:
            json.dump({"metadata": {}, "weight_map": weight_map}, f)
    for file, value in (("config.json", src.config), ("generation_config.json", src.generation), ("tokenizer.json", src.tokenizer)):
        with open(os.path.join(path, file), "w", encoding="utf-8") as f:
            json.dump(value, f, ensure_ascii=False, indent=1 if file != "tokenizer.json" else None)


# ---- GGUF ----------------------------------------------------------------------------------------

GGUF_KINDS = {name: kind for kind, name in export.GGUF_TYPES.items()}


def gguf_value(value):
    """(type number, bytes) of a metadata value: bool, int (u32), float (f32), str, or a list of one of them."""
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        data = value.encode()
        return 8, struct.pack("<Q", len(data)) + data
    items = [gguf_value(v) for v in value]
    return 9, struct.pack("<IQ", 5 if isinstance(value[0], int) and not isinstance(value[0], bool) else items[0][0], len(items)) + b"".join(d for _, d in items)


def gguf_metadata(m, src, size):
    """As llama.cpp's converter writes it for gemma4."""
    t = src.tokenizer
    vocab, control = t["model"]["vocab"], {a["content"] for a in t["added_tokens"]}
    tokens = [""] * m.n_vocab
    for text, i in vocab.items():
        tokens[i] = text
    full = next(i for i in range(m.n_layers) if m.full[i])
    sliding = next(i for i in range(m.n_layers) if not m.full[i])
    meta = {
        "general.architecture": "gemma4", "general.name": "random-" + size, "general.file_type": 2,
        "gemma4.block_count": m.n_layers, "gemma4.context_length": m.max_ctx, "gemma4.embedding_length": m.hidden,
        "gemma4.feed_forward_length": m.mlp_dim, "gemma4.attention.head_count": m.n_heads, "gemma4.attention.head_count_kv": m.n_kv_heads,
        "gemma4.attention.key_length": m.head_dim[full], "gemma4.attention.value_length": m.head_dim[full],
        "gemma4.attention.key_length_swa": m.head_dim[sliding], "gemma4.attention.value_length_swa": m.head_dim[sliding],
        "gemma4.rope.dimension_count": m.head_dim[full], "gemma4.rope.dimension_count_swa": m.head_dim[sliding],
        "gemma4.rope.freq_base": 1000000.0, "gemma4.rope.freq_base_swa": 10000.0,
        "gemma4.attention.layer_norm_rms_epsilon": float(m.eps), "gemma4.attention.sliding_window": m.window,
        "gemma4.attention.sliding_window_pattern": [not f for f in m.full],
        "gemma4.attention.shared_kv_layers": sum(i != s for i, s in enumerate(m.kv_source)),
        "gemma4.embedding_length_per_layer_input": m.ple_dim, "gemma4.final_logit_softcapping": float(m.softcap),
        "tokenizer.ggml.model": "gemma4", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.scores": [-1000.0] * len(tokens),
        "tokenizer.ggml.token_type": [3 if x in control else 6 if x.startswith("<0x") and len(x) == 6 else 1 for x in tokens],
        "tokenizer.ggml.merges": [x if isinstance(x, str) else " ".join(x) for x in t["model"]["merges"]] or ["a b"],
        "tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 3, "tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_bos_token": True,
    }
    if m.moe:
        meta.update({"gemma4.expert_count": m.n_experts, "gemma4.expert_used_count": m.n_experts_used,
                     "gemma4.expert_feed_forward_length": m.expert_dim})
    return meta


def gguf_type(name, shape, type_name, n_layers):
    """What llama-quantize makes of a tensor: of matrices the type (--pure), or the mixture Q4_K_M, except two that it leaves alone."""
    if len(shape) == 1 or name == "rope_freqs.weight" or "ffn_gate_inp" in name or name.endswith(".scale"):
        return "F32"
    if name == "per_layer_model_proj.weight" and type_name not in ("f32", "bf16"):
        return "F16"
    kind = type_name.upper()
    if type_name == "q4_k_m":
        block = re.fullmatch(r"blk\.(\d+)\.(attn_v|ffn_down|ffn_down_exps)\.weight", name)
        eighth, layer = n_layers // 8, int(block[1]) if block else 0
        more = block and (layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2)
        kind = "Q6_K" if more or name == "token_embd.weight" else "Q4_K"
    number = export.TYPE_NAMES.index(kind.lower())
    return export.TYPES[export.PADDED.get(number, number) if shape[-1] % export.TYPES[number].block else number].gguf


def write_gguf(src, size, path, type_name):
    m, shapes = all_tensors(src)
    names = {b: a for a, b in export.GGUF_NAMES.items()}
    inside = {b: a for a, b in export.GGUF_LAYER_NAMES.items()}
    tensors = []  # (GGUF name, source, type)
    for name, shape in shapes.items():
        block = name.split(".", 2)
        there = f"blk.{block[1]}.{inside[block[2]]}" if block[0] == "layers" else names[name]
        tensors.append((there, RandomTensor(name, shape), gguf_type(there, shape, type_name, m.n_layers)))
    pairs = len(m.rope["rope.full"])
    turned = int((m.rope["rope.full"] != 0).sum())
    tensors.append(("rope_freqs.weight", export.Stored.of("rope_freqs", np.where(np.arange(pairs) < turned, 1.0, 1e30)), "F32"))

    def n_bytes(t, kind):
        block, size_ = export.GGUF_BLOCKS.get(kind, (1, 4 if kind == "F32" else 2))
        return t.rows * t.cols // block * size_

    meta = gguf_metadata(m, src, size)
    head = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(meta))]
    for key, value in meta.items():
        kind, data = gguf_value(value)
        head += [gguf_value(key)[1], struct.pack("<I", kind), data]
    at = 0
    for name, t, kind in tensors:
        head += [gguf_value(name)[1], struct.pack(f"<I{len(t.shape)}QIQ", len(t.shape), *t.shape[::-1], GGUF_KINDS[kind], at)]
        at = export.round_up(at + n_bytes(t, kind), 32)
    head = b"".join(head)
    progress = export.Progress(at, False)
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % 32))
        for name, t, kind in tensors:
            for r0, r1 in slices(t):
                if kind in export.GGUF_BLOCKS:
                    number = export.TYPE_NAMES.index(kind.lower())
                    data = export.TYPES[number].blocks(*t.kept(number, r0, r1))
                else:
                    x = t.f32(r0, r1)
                    data = x if kind == "F32" else x.astype(np.float16) if kind == "F16" else export.f32_to_bf16(x)
                f.write(data.tobytes())
                progress(data.nbytes)
            f.write(bytes(-n_bytes(t, kind) % 32))
    progress.close()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--size", required=True, choices=TEXT)
    p.add_argument("-o", "--output", required=True, metavar="OUT", help="a file, or a folder for hf")
    p.add_argument("--format", choices=("hf", "g4", "gguf"), default="hf")
    p.add_argument("--type", choices=(*export.TYPE_NAMES, "q4_k_m", "mobile"), default="q4_0",
                   help="of the matrices, for g4 and gguf; q4_k_m: gguf; mobile: g4 of e2b and e4b")
    p.add_argument("--layers", type=int, default=0, metavar="N")
    p.add_argument("--towers", action="store_true", help="with the vision tower and, for e2b and e4b, the audio tower (hf and g4)")
    p.add_argument("--tokenizer", metavar="PATH", default=os.path.join(os.path.dirname(ROOT), "shared", "gemma4-tokenizer"))
    a = p.parse_args()
    if a.type == "q4_k_m" and a.format != "gguf":
        p.error("--type q4_k_m goes with --format gguf")
    config = make_config(a.size, a.layers, a.towers and a.format != "gguf")
    src = random_source(a.size, config, find_tokenizer(a.tokenizer))
    try:
        if a.format == "hf":
            write_hf(src, a.output)
        elif a.format == "g4":
            write_g4(src, a.size, a.output, a.type)
        else:
            write_gguf(src, a.size, a.output, a.type)
    except (export.ExportError, OSError) as e:
        print(f"random_checkpoint.py: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
