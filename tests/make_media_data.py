#!/usr/bin/env python3
"""Golden data of the vision and audio towers: tiny random multimodal checkpoints of every family member, and what
transformers makes of pictures, sound and video with them.

    python3 tests/make_media_data.py [--keep DIR] [OUT]      (OUT: tests/data/media)

Writes OUT/NAME.g4 (through export.py) and OUT/NAME.ref for e2b, e4b, 26b, 31b. Pictures and sounds are computed from
integers by the same few lines here and in tests/towers.h, so that they need no place. The .ref format is in write_ref.
"""

import argparse
import json
import math
import os
import struct
import subprocess
import sys
import tempfile

import numpy as np
import torch
import transformers
from transformers import Gemma4Config, Gemma4ForConditionalGeneration
from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

HERE = os.path.dirname(os.path.abspath(__file__))
VERSION = "5.24.0"  # of transformers; another one may compute other numbers

# ---- Token ids of the tiny vocabulary --------------------------------------------------------------

PAD, EOS, BOS, UNK = 0, 1, 2, 3
SPECIALS = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<mask>",
    "<|tool>",
    "<tool|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    '<|"|>',
    "<|think|>",
    "<|channel>",
    "<channel|>",
    "<|turn>",
    "<turn|>",
    "<|image>",
    "<image|>",
    "<|image|>",
    "<|audio>",
    "<audio|>",
    "<|audio|>",
    "<|video|>",
]
ID = {name: i for i, name in enumerate(SPECIALS)}
BOI, EOI, IMG = ID["<|image>"], ID["<image|>"], ID["<|image|>"]
BOA, EOA, AUD, VID = ID["<|audio>"], ID["<audio|>"], ID["<|audio|>"], ID["<|video|>"]
LETTERS = "\u2581\n0123456789abcdefghijklmnopqrstuvwxyz:.,"
N_VOCAB = len(SPECIALS) + 256 + len(LETTERS) + 5


def write_tokenizer(folder):
    """A BPE of the family's form: specials, bytes, letters and five merges."""
    vocab = dict(ID)
    for b in range(256):
        vocab["<0x%02X>" % b] = len(vocab)
    for c in LETTERS:
        vocab[c] = len(vocab)
    merges = [["t", "h"], ["th", "e"], ["i", "n"], ["a", "n"], ["\u2581", "the"]]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    assert len(vocab) == N_VOCAB
    added = [
        {
            "id": i,
            "content": s,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for s, i in ID.items()
    ]
    tok = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(tok, f, ensure_ascii=False)


# ---- Tiny models ----------------------------------------------------------------------------------

S, F = "sliding_attention", "full_attention"
ROPE = {
    S: {"rope_type": "default", "rope_theta": 1e4},
    F: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
}
TEXT = dict(
    vocab_size=N_VOCAB,
    vocab_size_per_layer_input=N_VOCAB,
    max_position_embeddings=4096,
    rope_parameters=ROPE,
    final_logit_softcapping=30.0,
    hidden_size_per_layer_input=0,
    pad_token_id=PAD,
    eos_token_id=EOS,
    bos_token_id=BOS,
)


def config(name):
    """Every branch of the family in a few thousand weights; no dimension is a multiple of what the kernels like."""
    audio = None
    if name in ("e2b", "e4b"):
        text = dict(
            TEXT,
            hidden_size=56,
            intermediate_size=104,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2 if name == "e4b" else 1,
            head_dim=24,
            global_head_dim=40,
            sliding_window=20,
            layer_types=[S, F, S, F],
            num_kv_shared_layers=2,
            use_double_wide_mlp=name == "e2b",
            hidden_size_per_layer_input=12,
        )
        vision = dict(
            hidden_size=48,
            intermediate_size=88,
            num_hidden_layers=2 if name == "e2b" else 1,
            num_attention_heads=3,
            num_key_value_heads=3,
            head_dim=16,
            position_embedding_size=404 if name == "e2b" else 64,
            use_clipped_linears=True,
        )
        audio = dict(
            hidden_size=48,
            num_hidden_layers=2 if name == "e2b" else 1,
            num_attention_heads=4,
            output_proj_dims=40,
            subsampling_conv_channels=[128, 15],
            rms_norm_eps=1e-6,
        )
    else:
        text = dict(
            TEXT,
            hidden_size=60,
            intermediate_size=56,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=24,
            global_head_dim=40,
            num_global_key_value_heads=1,
            attention_k_eq_v=True,
            sliding_window=24,
            layer_types=[S, S, F],
            use_bidirectional_attention="vision",
        )
        if name == "26b":
            text.update(enable_moe_block=True, num_experts=4, top_k_experts=2, moe_intermediate_size=16)
        vision = dict(
            hidden_size=56,
            intermediate_size=104,
            num_hidden_layers=2 if name == "26b" else 1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=24,
            position_embedding_size=212 if name == "26b" else 64,
            standardize=True,
        )
    return Gemma4Config(
        text_config=text,
        vision_config=vision,
        audio_config=audio,
        boi_token_id=BOI,
        eoi_token_id=EOI,
        image_token_id=IMG,
        boa_token_id=BOA,
        eoa_token_index=EOA,
        audio_token_id=AUD,
        video_token_id=VID,
        tie_word_embeddings=True,
    )


def randomise(model, seed):
    """Every weight and buffer of the state at a size at which it matters; half of the clip bounds finite."""
    g = torch.Generator().manual_seed(seed)
    state = model.state_dict()
    for i, (name, w) in enumerate(state.items()):
        r = torch.randn(w.shape, generator=g)
        u = torch.rand(w.shape, generator=g)
        leaf = name.rsplit(".", 1)[1]
        if leaf in ("input_min", "output_min", "input_max", "output_max"):
            sign = -1.0 if leaf.endswith("min") else 1.0
            w.copy_(
                sign * (0.5 + 1.5 * u) if hash_name(name.rsplit(".", 1)[0]) % 2 else sign * torch.tensor(float("inf"))
            )
        elif leaf == "per_dim_scale" or leaf == "std_bias":
            w.copy_(r)
        elif leaf in ("layer_scalar", "std_scale", "scale", "per_expert_scale"):
            w.copy_(0.6 + 0.8 * u)
        elif "norm" in name and w.dim() == 1:
            w.copy_(1.0 + 0.4 * r)
        elif leaf == "bias":
            w.copy_(0.5 * r)
        elif leaf == "position_embedding_table":
            w.copy_(0.7 * r)
        elif "embed_tokens" in name:
            w.copy_(0.6 * r)
        elif w.dim() >= 2:
            fan_in = w[0].numel() if w.dim() != 3 else w.shape[2]
            w.copy_(r * 1.2 / math.sqrt(fan_in))
        else:
            raise ValueError("no rule for " + name)


def hash_name(s):
    h = 5381
    for c in s.encode():
        h = (h * 33 + c) & 0xFFFFFFFF
    return h >> 7


# ---- Pictures and sounds from integers (the same in test_towers.c) ---------------------------------


def noise(i, seed):
    """Integer hash, elementwise: uint32 -> uint32."""
    x = (np.asarray(i, dtype=np.uint64) * 2654435761 + seed * 40503 + 12345) & 0xFFFFFFFF
    x ^= x >> 15
    x = (x * 2246822519) & 0xFFFFFFFF
    x ^= x >> 13
    return x.astype(np.uint32)


def picture(width, height, seed):
    """Two gradients, a coarse checkerboard and noise: (height, width, 3) uint8."""
    x = np.arange(width, dtype=np.int64)[None, :, None]
    y = np.arange(height, dtype=np.int64)[:, None, None]
    c = np.arange(3, dtype=np.int64)[None, None, :]
    base = (x * (3 + c) + y * (5 - c)) * 255 // (3 * width + 5 * height + 1) % 256
    check = ((x // 37 + y // 23 + c) % 2) * 64
    grain = (noise((y * width + x) * 3 + c, seed) & 63).astype(np.int64)
    return np.minimum(255, base // 2 + check + grain).astype(np.uint8)


SILENCE, CLICK, SPEECH = 0, 1, 2


def sound(n, kind, seed):
    """16-bit samples / 32768 in float32. SPEECH: two triangle waves under a slow envelope, and noise; with a rest of
    noise alone between 28.5 s and 28.7 s, the place where a longer sound is to be cut."""
    i = np.arange(n, dtype=np.int64)
    if kind == SILENCE:
        v = np.zeros(n, dtype=np.int64)
    elif kind == CLICK:
        v = np.where(i == n // 2, 30000, 0)
    else:

        def triangle(period):
            return np.abs((i % period) * 4 - 2 * period) * 8000 // period - 8000

        envelope = np.abs((i // 16) % 500 - 250)
        grain = (noise(i, seed) & 255).astype(np.int64) - 128
        v = (triangle(73 + seed) + triangle(211 + seed)) * envelope // 250 + grain
        v = np.where((i >= 456000) & (i < 459200), grain // 8, v)
    return (np.clip(v, -32768, 32767).astype(np.float32) / np.float32(32768)).astype(np.float32)


# ---- Reference values -----------------------------------------------------------------------------


class Reference:
    def __init__(self, model):
        self.model = model
        self.image = Gemma4ImageProcessorPil()
        self.mel = Gemma4AudioFeatureExtractor()

    def patches(self, pixels, budget):
        """(n, 768) float32 and (n, 2) positions, without padding."""
        from PIL import Image

        out = self.image(images=[Image.fromarray(pixels)], max_soft_tokens=budget, return_tensors="pt")
        n = int(out["num_soft_tokens_per_image"][0]) * 9
        return out["pixel_values"][0][:n].float(), out["image_position_ids"][0][:n]

    def image_rows(self, pixels, budget):
        values, positions = self.patches(pixels, budget)
        return self.model.model.get_image_features(values[None], positions[None]).pooler_output[0]

    def mel_frames(self, samples):
        """The valid frames. Cut to 30 s and padded by the extractor itself."""
        out = self.mel([samples], return_tensors="np", sampling_rate=16000)
        return out["input_features"][0][out["input_features_mask"][0].astype(bool)]

    def audio_rows(self, samples):
        out = self.mel([samples], return_tensors="pt", sampling_rate=16000)
        a = self.model.model.get_audio_features(out["input_features"], out["input_features_mask"])
        return a.pooler_output[0][a.attention_mask[0]]

    def logits(self, tokens, runs):
        """tokens with placeholders already repeated, runs: [(kind, object, budget)] in order. (n, vocab) float32."""
        args = {}
        values, positions, frames, frame_pos, mels, masks = [], [], [], [], [], []
        for kind, data, budget in runs:
            if kind == "audio":
                out = self.mel([data], return_tensors="pt", sampling_rate=16000)
                mels.append(out["input_features"][0])
                masks.append(out["input_features_mask"][0])
            else:
                out = self.patches(data, budget)
                (values if kind == "image" else frames).append(out[0])
                (positions if kind == "image" else frame_pos).append(out[1])
        if values:
            args["pixel_values"], args["image_position_ids"] = pad(values, 0.0), pad(positions, -1)
        if frames:
            args["pixel_values_videos"], args["video_position_ids"] = pad(frames, 0.0), pad(frame_pos, -1)
            args["num_frames_per_video"] = torch.tensor([len(frames)])
        if mels:
            args["input_features"], args["input_features_mask"] = pad(mels, 0.0), pad(masks, False)
        ids = torch.tensor([tokens])
        kinds = (ids == IMG) * 1 + (ids == VID) * 2 + (ids == AUD) * 3
        out = self.model(input_ids=ids, mm_token_type_ids=kinds if runs else None, use_cache=False, **args)
        return out.logits[0]


def pad(items, value):
    """Stack along a new first axis, padded at the end to the longest; pictures to a whole number of pooled tokens."""
    n = max(len(x) for x in items)
    return torch.stack([torch.cat([x, torch.full((n - len(x),) + x.shape[1:], value, dtype=x.dtype)]) for x in items])


# ---- Cases ----------------------------------------------------------------------------------------

# width, height, budget: extreme shapes, tiny, huge, unscaled, the full budget
PICTURES = {
    "e2b": [
        (200, 150, 70),
        (48, 64, 280),
        (1000, 10, 70),
        (7, 900, 140),
        (1, 1, 70),
        (768, 768, 280),
        (1999, 1501, 1120),
        (336, 480, 70),
        (130, 97, 560),
    ],
    "e4b": [(200, 150, 70), (90, 64, 140)],
    "26b": [(200, 150, 70), (320, 240, 140), (999, 700, 1120), (3, 500, 70), (5000, 3000, 280)],
    "31b": [(200, 150, 70), (90, 64, 140)],
}
# samples, kind
SOUNDS = {
    "e2b": [
        (320, SPEECH),
        (161, SPEECH),
        (16000, SILENCE),
        (16000, CLICK),
        (479840, SPEECH),
        (480160, SPEECH),
        (30001, SPEECH),
    ],
    "e4b": [(20000, SPEECH), (9999, SPEECH)],
}


def text(rng, n):
    return [int(t) for t in rng.integers(len(SPECIALS), N_VOCAB, n)]


def prompts(name, rng):
    """[(tokens, [(kind, case)])]: one placeholder per file of PICTURES or SOUNDS; a frame of a video is a picture."""
    img, vid, aud = [BOI, IMG, EOI], [BOI, VID, EOI], [BOA, AUD, EOA]
    out = []
    out.append(([BOS] + text(rng, 5) + img + text(rng, 30), [("image", 0)]))
    out.append(([BOS] + text(rng, 2) + img + text(rng, 9) + img + [EOI] + text(rng, 4), [("image", 1), ("image", 0)]))
    out.append(([BOS] + text(rng, 3) + [BOI, IMG, IMG, EOI] + text(rng, 3), [("image", 0), ("image", 0)]))  # one block
    video = [BOS]
    for i in range(3):
        video += text(rng, 5) + vid
    out.append((video + text(rng, 6), [("video", 0)] * 3))
    out.append(([BOS] + text(rng, 3) + [IMG, VID, AUD, AUD] + text(rng, 4), []))  # placeholders without media
    if name in SOUNDS:
        out.append(([BOS] + text(rng, 4) + aud + text(rng, 25), [("audio", len(SOUNDS[name]) - 1)]))
        everything = [BOS] + text(rng, 3) + img + text(rng, 4) + aud + text(rng, 2)
        runs = [("image", 0), ("audio", 0)]
        for i in range(2):
            everything += text(rng, 5) + vid
            runs += [("video", 0)]
        out.append((everything + aud + text(rng, 12), runs + [("audio", len(SOUNDS[name]) - 1)]))
    if name == "26b":
        out.append(([BOS] + text(rng, 40) + img + text(rng, 40), [("image", 2)]))  # 1120 tokens, many windows
    return out


def write_ref(path, records):
    """Records until the end of the file: name (32 bytes, NUL-padded), type (0 float32, 1 int32), n_dims, dims[4]
    (uint32 each), then the values, little-endian."""
    with open(path, "wb") as f:
        for name, value in records:
            a = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
            a = a.astype("<i4") if a.dtype.kind in "iu" else a.astype("<f4")
            dims = list(a.shape) + [1] * (4 - a.ndim)
            f.write(struct.pack("<32sII4I", name.encode(), 1 if a.dtype == np.dtype("<i4") else 0, a.ndim, *dims))
            f.write(np.ascontiguousarray(a).tobytes())


def fnv(a):
    """32-bit FNV-1a of the bytes, for arrays too big to keep."""
    h = 2166136261
    for word in np.ascontiguousarray(a).view("<u4").reshape(-1).tolist():
        h = ((h ^ word) * 16777619) & 0xFFFFFFFF
    return h


def some_rows(name, rows):
    """The rows, or every seventh of many: (rows in all, step), and those kept."""
    step = 1 if len(rows) <= 100 else 7
    return [("n." + name, np.array([len(rows), step])), (name, rows[::step])]


def references(name, model):
    ref = Reference(model)
    records = [("pictures", np.array(PICTURES[name]))]
    rows, block_rows = [], []
    for i, (w, h, budget) in enumerate(PICTURES[name]):
        pixels = picture(w, h, i)
        values, positions = ref.patches(pixels, budget)
        records.append(
            (
                "patches.%d" % i,
                np.array([len(values), int(positions[:, 0].max()) + 1, fnv(values.numpy())], dtype=np.uint32).view(
                    np.int32
                ),
            )
        )
        rows.append(ref.image_rows(pixels, budget))
        records += some_rows("image.%d" % i, rows[-1])
    sounds = []
    if name in SOUNDS:
        records.append(("sounds", np.array(SOUNDS[name])))
        for i, (n, kind) in enumerate(SOUNDS[name]):
            samples = sound(n, kind, i)
            cuts = [0, 457600, n] if n > 480000 else [0, n]
            records.append(("cuts.%d" % i, np.array(cuts)))
            out = []
            for b in range(len(cuts) - 1):
                block = samples[cuts[b] : cuts[b + 1]]
                mel = ref.mel_frames(block)
                keep = sorted(
                    set(range(min(len(mel), 12))) | set(range(0, len(mel), 97)) | {len(mel) - 1, len(mel) // 2}
                )
                records.append(("mel.%d.%d" % (i, b), mel[keep]))
                records.append(("frames.%d.%d" % (i, b), np.array([len(mel)] + keep)))
                out.append(ref.audio_rows(block))
                records += some_rows("audio.%d.%d" % (i, b), out[-1])
            sounds.append(out[0])
    rng = np.random.default_rng(7)
    for i, (tokens, media) in enumerate(prompts(name, rng)):
        full, runs, at = [], [], 0
        for t in tokens:
            if t in (IMG, VID, AUD) and media:
                kind, case = media[at]
                at += 1
                n = len(sounds[case]) if kind == "audio" else len(rows[case])
                full += [t] * n
                data = sound(*SOUNDS[name][case], case) if kind == "audio" else picture(*PICTURES[name][case][:2], case)
                runs.append((kind, data, 0 if kind == "audio" else PICTURES[name][case][2]))
            else:
                full.append(t)
        logits = ref.logits(full, runs)
        keep = list(range(max(0, len(full) - 60), len(full), 3 if len(full) > 40 else 1))
        keep = sorted(set(keep) | {len(full) - 1})
        records.append(("tokens.%d" % i, np.array(tokens)))
        records.append(
            ("media.%d" % i, np.array([[["image", "video", "audio"].index(k), c] for k, c in media]).reshape(-1, 2))
        )
        records.append(("n.%d" % i, np.array([len(full)])))
        records.append(("keep.%d" % i, np.array(keep)))
        records.append(("logits.%d" % i, logits[keep]))
        print("%s prompt %d: %d positions, logits std %.2f" % (name, i, len(full), float(logits.std())))
    return records


def check_version():
    if transformers.__version__ != VERSION:
        print(
            "warning: transformers %s, the committed data is of %s" % (transformers.__version__, VERSION),
            file=sys.stderr,
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", nargs="?", default=os.path.join(HERE, "data", "media"))
    parser.add_argument("--keep", help="leave the checkpoints in this folder")
    parser.add_argument("--only", help="one model")
    args = parser.parse_args()
    check_version()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    os.makedirs(args.out, exist_ok=True)
    with tempfile.TemporaryDirectory() as tmp:
        for seed, name in enumerate(["e2b", "e4b", "26b", "31b"]):
            if args.only and name != args.only:
                continue
            model = (
                Gemma4ForConditionalGeneration._from_config(config(name), attn_implementation="eager").float().eval()
            )
            randomise(model, 1000 + seed)
            folder = os.path.join(args.keep or tmp, name)
            os.makedirs(folder, exist_ok=True)
            model.save_pretrained(folder)
            write_tokenizer(folder)
            write_ref(os.path.join(args.out, name + ".ref"), references(name, model))
            for kind in ["f32"] + (["q8_0"] if name == "e2b" else []):
                if kind == "q8_0":  # a chat model, for the tests of the program; the exporter looks for these words
                    with open(os.path.join(folder, "chat_template.jinja"), "w") as f:
                        f.write("{# stands for the E2B template: <|turn> preserve_thinking #}")
                target = os.path.join(args.out, name + ("" if kind == "f32" else "-" + kind) + ".g4")
                export = [sys.executable, os.path.join(HERE, "..", "export.py"), folder, "--quiet", "--type", kind]
                subprocess.run(export + ["-o", target], check=True)


if __name__ == "__main__":
    main()
