#!/usr/bin/env python3
"""Live comparison with transformers: fresh random multimodal models of every family member, through export.py and the
command line.

    python3 tests/test_media_reference.py [--gemma4 PROGRAM] [--seed N]

Files a user has (PNG in several modes, WAV, a lossless video) -> `gemma4 patches`, `mel`, `encode` and `logits`
against the reference on the same pixels and samples. Then the same checkpoint as GGUF with its mmproj: its tensors must
be those of the folder.
Needs torch, transformers, Pillow, gguf; the video part needs ffmpeg. The last line is "N passed, N failed".
"""

import argparse
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import wave

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file
from transformers import Gemma4ForConditionalGeneration

import checkpoints
import make_media_data as data
import score
from score import expect

sys.path.insert(0, os.path.join(data.HERE, ".."))
import export  # noqa: E402  (the program beside this folder)

MEL, ROWS, LOGITS = 1e-3, 5e-5, 1e-3  # largest differences allowed


class Program:
    def __init__(self, path, tmp):
        self.path, self.tmp = path, tmp

    def rows(self, command, *args):
        """The float32 array a command writes, by the shape it prints."""
        out = os.path.join(self.tmp, "out.f32")
        run = subprocess.run([self.path, command, *map(str, args), "-o", out], capture_output=True, text=True)
        shape = [line.split()[1:] for line in run.stderr.splitlines() if line.startswith("shape ")]
        if run.returncode or len(shape) != 1:
            raise RuntimeError("%s %s: %s" % (command, args, run.stderr))
        rows = np.fromfile(out, "<f4")
        os.remove(out)
        return rows.reshape([int(n) for n in shape[0]])

    def dump(self, *args):
        """The activations of a prompt, as safetensors reads them: name -> array."""
        out = os.path.join(self.tmp, "dump.safetensors")
        subprocess.run([self.path, "logits", *map(str, args), "--dump", out], capture_output=True, check=True)
        tensors = load_file(out)
        os.remove(out)
        return tensors

    def fails(self, status, word, command, *args):
        run = subprocess.run(
            [self.path, command, *map(str, args), "-o", os.path.join(self.tmp, "none")], capture_output=True, text=True
        )
        expect(
            run.returncode == status and word in run.stderr and not os.path.exists(os.path.join(self.tmp, "none")),
            "%s %s: status %d, %s" % (command, args, run.returncode, run.stderr.strip()),
        )


def close(a, b, tolerance, what):
    b = b.detach().numpy() if isinstance(b, torch.Tensor) else b
    diff = float(np.abs(a.astype(np.float64) - b).max()) if a.shape == b.shape else np.inf
    expect(diff <= tolerance, "%s: %s against %s, off by %g" % (what, a.shape, b.shape, diff))
    return diff


def write_pictures(tmp, rng):
    """[(path, pixels as the model sees them)]: modes, shapes and transparency that files have."""
    out = []

    def save(name, image, rgb):
        path = os.path.join(tmp, name)
        image.save(path)
        out.append((path, np.asarray(rgb)))

    base = data.picture(160, 120, 3)
    rgb = Image.fromarray(base)
    save("rgb.png", rgb, rgb)
    grey = rgb.convert("L")
    save("grey.png", grey, grey.convert("RGB"))
    alpha = np.dstack([base, rng.integers(0, 256, base.shape[:2], np.uint8)])
    rgba = Image.fromarray(alpha)
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    save("rgba.png", rgba, Image.alpha_composite(white, rgba).convert("RGB"))
    save("palette.png", rgb.quantize(64), rgb.quantize(64).convert("RGB"))
    for w, h in ((1, 1), (2000, 3), (5, 700)):
        image = Image.fromarray(data.picture(w, h, w))
        save("%dx%d.ppm" % (w, h), image, image)
    return out


def write_wav(path, samples):
    with wave.open(path, "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(16000)
        f.writeframes((samples * 32768).astype("<i2").tobytes())


def write_video(path, frames, fps):
    """Lossless RGB, so that the frames come back as they are."""
    n, h, w, _ = frames.shape
    subprocess.run(
        [
            "ffmpeg",
            "-v",
            "error",
            "-y",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-s",
            "%dx%d" % (w, h),
            "-r",
            str(fps),
            "-i",
            "-",
            "-c:v",
            "ffv1",
            "-pix_fmt",
            "gbrp",
            path,
        ],
        input=frames.tobytes(),
        check=True,
    )


def compare(name, seed, program, tmp):
    """One member: files through the program against the reference."""
    rng = np.random.default_rng(seed)
    config = data.config(name)
    config.vision_config.position_embedding_size = 256  # the widest picture below is 210 patches wide
    if name in ("e4b", "31b"):
        config.vision_config.num_key_value_heads = 1  # no published tower groups its heads; the reference can
    model = Gemma4ForConditionalGeneration._from_config(config, attn_implementation="eager").float().eval()
    data.randomise(model, seed)
    folder, g4 = os.path.join(tmp, name), os.path.join(tmp, name + ".g4")
    os.makedirs(folder)
    model.save_pretrained(folder)
    data.write_tokenizer(folder)
    types = {key: export.F32 for key in ("type", "head", "ple", "vision", "audio")}
    export.export(folder, g4, types, quiet=True)
    ref = data.Reference(model)
    worst = [0.0] * 4

    pictures = write_pictures(tmp, rng)
    rows = []
    for i, (path, pixels) in enumerate(pictures):
        budget = (70, 140, 280)[i % 3] if i < 4 else 70
        values, _ = ref.patches(pixels, budget)
        got = program.rows("patches", "-f", path, "--image-tokens", budget)
        expect(got.shape == values.shape and np.array_equal(got, values.numpy()), "patches of %s differ" % path)
        rows.append((path, pixels, budget))
        got = program.rows("encode", "-m", g4, "--image-tokens", budget, "--image", path)
        worst[1] = max(worst[1], close(got, ref.image_rows(pixels, budget), ROWS, "%s: rows of %s" % (name, path)))

    sounds = []
    if name in data.SOUNDS:
        for n, kind in ((16000, data.SPEECH), (5000, data.CLICK), (480160, data.SPEECH), (320, data.SPEECH)):
            path = os.path.join(tmp, "%d.wav" % n)
            samples = data.sound(n, kind, seed % 7)
            write_wav(path, samples)
            sounds.append((path, samples))
            cuts = [0, 457600, n] if n > 480000 else [0, n]
            blocks = [samples[a:b] for a, b in zip(cuts, cuts[1:])]
            for b, block in enumerate(blocks):
                worst[0] = max(
                    worst[0],
                    close(
                        program.rows("mel", "-f", path, "--block", b), ref.mel_frames(block), MEL, "mel of %s" % path
                    ),
                )
            got = program.rows("encode", "-m", g4, "--audio", path)
            worst[1] = max(
                worst[1],
                close(got, torch.cat([ref.audio_rows(b) for b in blocks]), ROWS, "%s: rows of %s" % (name, path)),
            )
    else:
        program.fails(1, "audio", "encode", "-m", g4, "--audio", write_one(tmp))

    video = None
    if shutil.which("ffmpeg"):
        video = os.path.join(tmp, "video.mkv")
        frames = np.stack([data.picture(64, 48, i) for i in range(50)])
        write_video(video, frames, 10)
        chosen = [i * 50 // 32 for i in range(32)]
        want = torch.cat([ref.image_rows(frames[i], 70) for i in chosen])
        worst[1] = max(
            worst[1],
            close(program.rows("encode", "-m", g4, "--video", video), want, ROWS, "%s: rows of the video" % name),
        )
    else:
        score.skip("video, there is no ffmpeg")

    # One prompt with everything in it; a placeholder for each file, for a video one for each frame.
    tokens, args, runs = [data.BOS] + data.text(rng, 4), [], []
    for path, pixels, budget in rows[:2]:
        tokens += [data.BOI, data.IMG, data.EOI] + data.text(rng, 3)
        args += ["--image-tokens", budget, "--image", path]
        runs.append(("image", pixels, budget))
    for path, samples in sounds[:1]:
        tokens += [data.BOA, data.AUD, data.EOA] + data.text(rng, 3)
        args += ["--audio", path]
        runs.append(("audio", samples, 0))
    if video:
        args += ["--video", video, "--frames", 3]
        for i in (0, 16, 33):
            tokens += data.text(rng, 5) + [data.BOI, data.VID, data.EOI]
            runs.append(("video", frames[i], 70))
    tokens += data.text(rng, 9)
    full, at = [], 0
    for t in tokens:
        n = 1
        if t in (data.IMG, data.VID, data.AUD):
            kind, what, budget = runs[at]
            n = len(ref.audio_rows(what)) if kind == "audio" else len(ref.patches(what, budget)[0]) // 9
            at += 1
        full += [t] * n
    got = program.rows("logits", "-m", g4, "--tokens", ",".join(map(str, tokens)), "--all", *args)
    worst[2] = close(got, ref.logits(full, runs), LOGITS, "%s: logits of %d positions" % (name, len(full)))
    last = program.rows("logits", "-m", g4, "--tokens", ",".join(map(str, tokens)), *args)
    expect(np.array_equal(last[0], got[-1]), "%s: the last row alone is another" % name)
    dump = program.dump("-m", g4, "--tokens", ",".join(map(str, tokens)), *args)
    expect(np.array_equal(dump["logits"], got), "%s: the logits of a dump are others" % name)
    softs = dump["embed"][np.isin(full, (data.IMG, data.VID))]  # what stands in the prompt is what the tower made
    expect(np.array_equal(dump["vision.out"], softs), "%s: the soft tokens of a dump are others" % name)
    expect(all(len(x) == len(full) for k, x in dump.items() if "." not in k or k[:2] == "l."), "%s: rows of a dump" % name)

    plain = [data.BOS, data.IMG, data.VID] + data.text(rng, 3)
    worst[3] = close(
        program.rows("logits", "-m", g4, "--tokens", ",".join(map(str, plain)), "--all"),
        ref.logits(plain, []),
        LOGITS,
        "%s: placeholders without media" % name,
    )
    program.fails(1, "", "logits", "-m", g4, "--tokens", "2,%d,%d" % (data.IMG, data.IMG), "--image", rows[0][0])
    program.fails(1, "", "logits", "-m", g4, "--tokens", "2,30", "--image", rows[0][0])
    program.fails(2, "70, 140", "encode", "-m", g4, "--image-tokens", "100", "--image", rows[0][0])
    print("%s: mel off by %.2g, rows by %.2g, logits by %.2g, without media by %.2g" % (name, *worst))
    return folder, g4


def write_one(tmp):
    path = os.path.join(tmp, "one.wav")
    write_wav(path, data.sound(16000, data.SPEECH, 1))
    return path


# ---- GGUF -------------------------------------------------------------------------------------------


def write_gguf(path, arch, meta, tensors):
    import gguf

    w = gguf.GGUFWriter(path, arch)
    for key, value in meta.items():
        if isinstance(value, bool):
            w.add_bool(key, value)
        elif isinstance(value, int):
            w.add_uint32(key, value)
        elif isinstance(value, float):
            w.add_float32(key, value)
        elif isinstance(value, str):
            w.add_string(key, value)
        else:
            w.add_array(key, value)
    for name, value in tensors.items():
        w.add_tensor(name, np.ascontiguousarray(value, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def mmproj_of(state, config):
    """A checkpoint's towers as an mmproj has them: other names, softplus done, channels first, bounds missing."""
    names = {b: a for a, b in export.MMPROJ_NAMES.items()}
    tensors = {}
    for name, w in state.items():
        name, w = export.canonical_name(name), w.numpy()
        stem, _, leaf = name.rpartition(".")
        layer = [
            part
            for part in (
                ("vision_tower.encoder.layers.", "v", export.MMPROJ_VISION),
                ("audio_tower.layers.", "a", export.MMPROJ_AUDIO),
            )
            if name.startswith(part[0])
        ]
        if name.endswith("per_dim_scale"):
            stem, leaf, w = name, "weight", np.logaddexp(0, w)
        if name.endswith("position_embedding_table"):
            stem, leaf = name, "weight"
        if layer:
            prefix, letter, table = layer[0]
            number, inside = stem[len(prefix) :].split(".", 1)
            if leaf in export.BOUNDS:
                if np.isinf(w):
                    continue
                inside += ".linear"
            target = "%s.blk.%s.%s.%s" % (letter, number, table[inside], leaf)
        elif name in ("vision_tower.std_bias", "vision_tower.std_scale"):
            target = names[name]
        elif stem in names:
            target = names[stem] + "." + leaf
        else:
            continue
        if target == "v.patch_embd.weight":
            w = w.reshape(len(w), 16, 16, 3).transpose(0, 3, 1, 2)
        if "depthwise_conv1d" in name:
            w = w[:, 0]
        tensors[target] = w.reshape(1) if w.ndim == 0 else w
    v, a = config.vision_config, config.audio_config
    meta = {
        "clip.has_vision_encoder": True,
        "clip.vision.projector_type": "gemma4v",
        "clip.vision.embedding_length": v.hidden_size,
        "clip.vision.feed_forward_length": v.intermediate_size,
        "clip.vision.block_count": v.num_hidden_layers,
        "clip.vision.attention.head_count": v.num_attention_heads,
        "clip.vision.attention.layer_norm_epsilon": 1e-6,
        "clip.vision.patch_size": 16,
    }
    if a:
        meta.update(
            {
                "clip.has_audio_encoder": True,
                "clip.audio.projector_type": "gemma4a",
                "clip.audio.embedding_length": a.hidden_size,
                "clip.audio.feed_forward_length": 4 * a.hidden_size,
                "clip.audio.block_count": a.num_hidden_layers,
                "clip.audio.attention.head_count": a.num_attention_heads,
                "clip.audio.attention.layer_norm_epsilon": 1e-6,
            }
        )
    return meta, tensors


def text_gguf_of(state, config):
    """The decoder as GGUF, as far as the exporter needs it."""
    c = config.text_config
    names = {b: a for a, b in export.GGUF_NAMES.items()}
    layer_names = {b: a for a, b in export.GGUF_LAYER_NAMES.items()}
    tensors = {}
    for name, w in state.items():
        name, w = export.canonical_name(name), w.numpy()
        if name.startswith(("vision_tower", "audio_tower", "embed_vision", "embed_audio")) or name == "lm_head.weight":
            continue
        if name.startswith("layers."):
            _, number, inside = name.split(".", 2)
            target = "blk.%s.%s" % (number, layer_names[inside])
        else:
            target = names[name]
        tensors[target] = w
    sliding = [kind == "sliding_attention" for kind in c.layer_types]
    each = [c.per_layer_config[i] for i in range(len(sliding))]
    dims = {s: layer.head_dim for s, layer in zip(sliding, each)}
    kv = [layer.num_key_value_heads for layer in each]
    tensors["rope_freqs.weight"] = np.where(np.arange(dims[False] // 2) < int(0.25 * dims[False] // 2), 1, 1e30)
    shared, wide = c.num_kv_shared_layers, 2 if c.use_double_wide_mlp else 1
    n = c.num_hidden_layers
    g = "gemma4."
    meta = {
        g + "block_count": n,
        g + "embedding_length": c.hidden_size,
        g + "context_length": c.max_position_embeddings,
        g + "attention.head_count": c.num_attention_heads,
        g + "attention.head_count_kv": kv,
        g + "attention.key_length": dims[False],
        g + "attention.key_length_swa": dims[True],
        g + "attention.sliding_window": c.sliding_window,
        g + "attention.sliding_window_pattern": sliding,
        g + "attention.layer_norm_rms_epsilon": c.rms_norm_eps,
        g + "attention.shared_kv_layers": shared,
        g + "final_logit_softcapping": 30.0,
        g + "rope.freq_base": 1e6,
        g + "rope.freq_base_swa": 1e4,
        g + "feed_forward_length": [c.intermediate_size * (wide if i >= n - shared else 1) for i in range(n)],
        g + "embedding_length_per_layer_input": c.hidden_size_per_layer_input,
    }
    if c.enable_moe_block:
        meta.update(
            {
                g + "expert_count": c.num_experts,
                g + "expert_used_count": c.top_k_experts,
                g + "expert_feed_forward_length": c.moe_intermediate_size,
            }
        )
    tokens = (
        data.SPECIALS
        + ["<0x%02X>" % b for b in range(256)]
        + list(data.LETTERS)
        + ["th", "the", "in", "an", "\u2581the"]
    )
    meta.update(
        {
            "tokenizer.ggml.model": "gemma4",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [3] * len(data.SPECIALS)
            + [6] * 256
            + [1] * (len(tokens) - 256 - len(data.SPECIALS)),
            "tokenizer.ggml.merges": ["t h", "th e", "i n", "a n", "\u2581 the"],
            "tokenizer.ggml.bos_token_id": data.BOS,
            "tokenizer.ggml.eos_token_id": data.EOS,
            "tokenizer.ggml.unknown_token_id": data.UNK,
            "tokenizer.ggml.padding_token_id": data.PAD,
        }
    )
    return meta, tensors


def read_g4(path):
    """{name: (entry without offset, bytes)} and the configuration."""
    with open(path, "rb") as f:
        raw = f.read()
    head = export.HEADER.unpack_from(raw)
    config, table, n = head[7], head[11], head[12]
    out = {}
    for i in range(n):
        e = export.ENTRY.unpack_from(raw, table + i * export.ENTRY.size)
        out[e[0].rstrip(b"\0").decode()] = (e[1:8], raw[e[8] : e[8] + e[9]])
    source = struct.calcsize("<96s68s")  # which ends it
    return out, raw[config + 72 : config + export.CONFIG.size - source]


def compare_gguf(name, folder, g4, tmp):
    """The same model from GGUF and mmproj must become the same file."""
    from safetensors.torch import load_file

    state = load_file(os.path.join(folder, "model.safetensors"))
    config = data.config(name)
    text, mmproj, out = (os.path.join(tmp, name + end) for end in (".gguf", "-mmproj.gguf", "-gguf.g4"))
    write_gguf(text, "gemma4", *text_gguf_of(state, config))
    write_gguf(mmproj, "clip", *mmproj_of(state, config))
    types = {key: export.F32 for key in ("type", "head", "ple", "vision", "audio")}
    export.export(text, out, types, mmproj=mmproj, quiet=True)
    a, config_a = read_g4(g4)
    b, config_b = read_g4(out)
    expect(set(a) == set(b), "%s: other tensors from GGUF: %s" % (name, sorted(set(a) ^ set(b))))
    expect(
        config_a == config_b,
        "%s: another configuration from GGUF, at words %s"
        % (name, [i for i in range(len(config_a) // 4) if config_a[4 * i : 4 * i + 4] != config_b[4 * i : 4 * i + 4]]),
    )
    different = [t for t in a if t in b and a[t] != b[t]]
    for t in [t for t in different if t.endswith("q_scale")]:  # softplus was rounded once more
        close(np.frombuffer(a[t][1], "<f4"), np.frombuffer(b[t][1], "<f4"), 2e-7, "%s: %s from GGUF" % (name, t))
        different.remove(t)
    expect(not different, "%s: tensors differ from GGUF: %s" % (name, different))
    compare_ollama(name, state, config, g4, tmp)
    export.export(text, out, types, text_only=True, quiet=True)
    b, _ = read_g4(out)
    expect(not [t for t in b if t.startswith(("v.", "a."))] and set(b) < set(a), "%s: --text-only" % name)


def compare_ollama(name, state, config, g4, tmp):
    """The same model in one file, as ollama writes it."""
    meta, tensors = text_gguf_of(state, config)
    towers, _ = mmproj_of(state, config)
    for key, w in state.items():
        target, w = checkpoints.ollama_tower(export.canonical_name(key), w.numpy(), config.vision_config.patch_size)
        if target and not (target.endswith(export.BOUNDS) and np.isinf(w).any()):
            tensors[target] = w
    meta.update({key.replace("clip.", "gemma4."): value for key, value in towers.items() if ".has_" not in key and "projector" not in key})
    meta["tokenizer.ggml.model"] = "llama"
    path, out = os.path.join(tmp, name + "-ollama.gguf"), os.path.join(tmp, name + "-ollama.g4")
    write_gguf(path, "gemma4", meta, tensors)
    export.export(path, out, {key: export.F32 for key in ("type", "head", "ple", "vision", "audio")}, quiet=True)
    a, config_a = read_g4(g4)
    b, config_b = read_g4(out)
    expect(set(a) == set(b) and config_a == config_b, "%s: another configuration from ollama's file" % name)
    different = [t for t in a if t in b and a[t] != b[t] and not t.endswith("q_scale")]
    expect(not different, "%s: tensors differ from ollama's file: %s" % (name, different))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gemma4", default=os.path.join(data.HERE, "..", "gemma4"))
    parser.add_argument("--seed", type=int, default=77)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for i, name in enumerate(["e2b", "e4b", "26b", "31b"]):
        with tempfile.TemporaryDirectory() as tmp:
            folder, g4 = compare(name, args.seed + i, Program(args.gemma4, tmp), tmp)
            compare_gguf(name, folder, g4, tmp)
    return score.end()


if __name__ == "__main__":
    sys.exit(main())
