#!/usr/bin/env python3
"""Golden activations: what transformers computes inside the tiny random models of tests/data, layer by layer.

    python3 tests/make_taps_data.py [OUT]      (OUT: tests/data)

Writes OUT/taps_NAME.ref for e2b and e4b (a picture and a sound in the prompt), 26b and 31b (a picture) of
make_media_data.py and gemma3 of make_data.py, whose weights it makes again from their seeds; e2b, which multiplies the noise
of float32 too much for a bound of 2e-4, is a calmer one of its own, OUT/taps_e2b.g4. The format is that of
make_media_data.write_ref. Records: tokens (placeholders repeated), picture (width, height, budget), sound (samples, kind),
step, and then, in the order of computation, each activation by the name that `gemma4 logits --dump` gives it (MODEL.md has
them all), (rows, columns). Of rows of patches only every step-th is kept.
"""

import argparse
import os
import struct
import subprocess
import sys
import tempfile

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch
from transformers import Gemma4ForConditionalGeneration
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.gemma4 import modeling_gemma4

import make_data
import make_media_data as media

HERE = os.path.dirname(os.path.abspath(__file__))
STEP = 5  # of rows of patches
PICTURE = (80, 352, 70)  # so narrow that it becomes 3 x 17 soft tokens
SOUND = (9999, media.SPEECH)
N_TEXT = 40  # tokens of the prompt without media


class Taps:
    """Hooks on a model that note what passes, by our names. Modules change their results in place later: notes are copies."""

    def __init__(self):
        self.seen = {}

    def note(self, name, x):
        if name in self.seen:
            raise SystemExit(f"{name} is computed twice")
        self.seen[name] = x.detach().clone().reshape(-1, x.shape[-1])

    def result(self, module, name, change=lambda x: x):
        def hook(_module, _args, out):
            self.note(name, change(out[0] if isinstance(out, tuple) else out))

        module.register_forward_hook(hook)

    def argument(self, module, name, index=0, change=lambda x: x):
        def hook(_module, args):
            self.note(name, change(args[index]))

        module.register_forward_pre_hook(hook)

    def attention(self, modeling, names):
        """Queries, keys and values as attention reads them, and what it gives; names: attention module -> prefix."""
        original = modeling.eager_attention_forward

        def rows(x):  # (1, heads, n, dim)
            return x[0].transpose(0, 1).flatten(1)

        def tapped(module, query, key, value, mask, scaling=None, **kwargs):
            out, weights = original(module, query, key, value, mask, scaling=scaling, **kwargs)
            prefix = names[module]
            self.note(prefix + "q", rows(query) * (module.head_dim**-0.5 if scaling is None else scaling))
            if not getattr(module, "is_kv_shared_layer", False):
                self.note(prefix + "k", rows(key))
                self.note(prefix + "v", rows(value))
            self.note(prefix + "attn_heads", out[0].flatten(1))
            return out, weights

        modeling.eager_attention_forward = tapped


def tap_block(taps, layer, at, attention):
    """What a layer of the decoder and one of the vision tower have in common."""
    attention[layer.self_attn] = at
    taps.result(layer.input_layernorm, at + "attn_norm")
    taps.result(layer.self_attn, at + "attn_out")
    taps.result(layer.post_attention_layernorm, at + "attn_post_norm")
    taps.result(layer.pre_feedforward_layernorm, at + "mlp_norm")
    taps.argument(layer.mlp.down_proj, at + "mlp_hidden")


def tap_decoder(taps, model, attention):
    """model: the one with embed_tokens, layers and norm."""
    taps.argument(model.layers[0], "embed")
    for i, layer in enumerate(model.layers):
        at = f"l.{i}."
        tap_block(taps, layer, at, attention)
        if getattr(layer, "enable_moe_block", False):
            taps.result(layer.mlp, at + "dense_out")
            taps.argument(layer.router.proj, at + "router_norm")
            layer.router.register_forward_hook(lambda _m, _a, out, at=at: tap_router(taps, at, *out))
            taps.result(layer.pre_feedforward_layernorm_2, at + "moe_norm")
            taps.result(layer.experts, at + "experts_out")
        taps.argument(layer.post_feedforward_layernorm, at + "mlp_out")
        taps.result(layer.post_feedforward_layernorm, at + "mlp_post_norm")
        if getattr(layer, "hidden_size_per_layer_input", 0):
            taps.argument(layer, at + "ple_in", index=1)
            taps.argument(layer.per_layer_projection, at + "ple_hidden")
            taps.result(layer.per_layer_projection, at + "ple_out")
            taps.result(layer.post_per_layer_input_norm, at + "ple_norm")
        taps.result(layer, at + "layer_out")
    taps.result(model.norm, "norm")


def tap_router(taps, at, probabilities, weights, ids):
    order = ids.argsort(dim=-1)  # ours go by ascending id
    taps.note(at + "router", probabilities)
    taps.note(at + "router_ids", ids.gather(-1, order))
    taps.note(at + "router_weights", weights.gather(-1, order))


def tap_vision(taps, tower, embedder, attention):
    taps.argument(tower.patch_embedder, "vision.patches")
    taps.result(tower.patch_embedder, "vision.embed")
    for i, layer in enumerate(tower.encoder.layers):
        at = f"vision.l.{i}."
        tap_block(taps, layer, at, attention)
        taps.result(layer.mlp, at + "mlp_out")
        taps.result(layer.post_feedforward_layernorm, at + "mlp_post_norm")
        taps.result(layer, at + "layer_out")
    taps.argument(embedder.embedding_pre_projection_norm, "vision.pooled")
    taps.result(embedder.embedding_pre_projection_norm, "vision.norm")
    taps.result(embedder.embedding_projection, "vision.out")


def tap_audio(taps, tower, embedder):
    taps.argument(tower.subsample_conv_projection, "audio.mel")
    taps.result(tower.subsample_conv_projection, "audio.subsample")
    for i, layer in enumerate(tower.layers):
        at, attn, conv = f"audio.l.{i}.", layer.self_attn, layer.lconv1d
        taps.result(layer.feed_forward1.pre_layer_norm, at + "ff1_norm")
        taps.result(layer.feed_forward1.ffw_layer_2, at + "ff1_out")
        taps.result(layer.norm_pre_attn, at + "attn_norm")
        scale = (attn.q_scale * torch.nn.functional.softplus(attn.per_dim_scale)).repeat(attn.num_heads)
        taps.result(attn.q_proj, at + "q", lambda x, scale=scale: x * scale)
        taps.result(attn.k_proj, at + "k", lambda x, attn=attn: x * attn.k_scale)
        taps.result(attn.v_proj, at + "v")
        taps.argument(attn.post, at + "attn_heads")
        taps.result(attn.post, at + "attn_out")
        taps.result(layer.norm_post_attn, at + "attn_post_norm")
        taps.result(conv.pre_layer_norm, at + "conv_norm")
        taps.argument(conv.depthwise_conv1d, at + "conv_gated", change=lambda x: x.transpose(1, 2))
        taps.result(conv.conv_norm, at + "conv_mid_norm")
        taps.result(conv.linear_end, at + "conv_out")
        taps.result(layer.feed_forward2.pre_layer_norm, at + "ff2_norm")
        taps.result(layer.feed_forward2.ffw_layer_2, at + "ff2_out")
        taps.result(layer.norm_out, at + "layer_out")
    taps.result(tower.output_proj, "audio.projected")
    taps.result(embedder.embedding_pre_projection_norm, "audio.norm")
    taps.result(embedder.embedding_projection, "audio.out")


def calm(model):
    """Branches of the decoder that are smaller than the stream, and softer attention."""
    for layer in model.model.language_model.layers:
        for norm in (layer.post_attention_layernorm, layer.post_feedforward_layernorm, layer.post_per_layer_input_norm):
            norm.weight.mul_(0.4)
        for norm in (layer.self_attn.q_norm, getattr(layer.self_attn, "k_norm", None)):
            if norm is not None:
                norm.weight.mul_(0.7)


def save(model, path):
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        media.write_tokenizer(folder)
        export = [sys.executable, os.path.join(HERE, "..", "export.py"), folder, "--quiet", "--type", "f32", "-o", path]
        subprocess.run(export, check=True)


def media_records(name, seed, out):
    model = Gemma4ForConditionalGeneration._from_config(media.config(name), attn_implementation="eager").float().eval()
    media.randomise(model, 1000 + seed)
    if name == "e2b":
        calm(model)
        save(model, os.path.join(out, "taps_e2b.g4"))
    reference, rng, taps, attention = media.Reference(model), np.random.default_rng(seed), Taps(), {}
    pixels, samples = media.picture(*PICTURE[:2], seed), media.sound(*SOUND, seed)
    n_patches = len(reference.patches(pixels, PICTURE[2])[0])
    runs = [("image", pixels, PICTURE[2])]
    tokens = [media.BOS] + media.text(rng, 3) + [media.BOI] + [media.IMG] * (n_patches // 9) + [media.EOI]
    tokens += media.text(rng, 4)
    if model.config.audio_config:
        n_frames = len(reference.mel_frames(samples))
        n_heard = (n_frames + 3) // 4
        runs.append(("audio", samples, 0))
        tokens += [media.BOA] + [media.AUD] * n_heard + [media.EOA] + media.text(rng, 4)
        tap_audio(taps, model.model.audio_tower, model.model.embed_audio)
    tap_vision(taps, model.model.vision_tower, model.model.embed_vision, attention)
    tap_decoder(taps, model.model.language_model, attention)
    original = modeling_gemma4.eager_attention_forward
    taps.attention(modeling_gemma4, attention)
    taps.note("logits", reference.logits(tokens, runs))
    modeling_gemma4.eager_attention_forward = original
    records = [("tokens", np.array(tokens)), ("picture", np.array(PICTURE)), ("sound", np.array(SOUND)), ("step", np.array([STEP]))]
    for tap, x in taps.seen.items():
        if tap.startswith("audio."):  # without the padding of the block
            x = x[: n_frames if tap == "audio.mel" else n_heard]
        records.append((tap, x[::STEP] if len(x) == n_patches else x))
    return records


def gemma3_records(folder):
    """The model behind the shipped text_gemma3.ref is the first attempt that gives its logits."""
    with open(os.path.join(folder, "text_gemma3.ref"), "rb") as f:
        _, n, n_vocab, n_greedy, _, _, _ = struct.unpack("<8s5If", f.read(32))
        tokens = np.frombuffer(f.read(4 * n), "<i4")
        f.read(4 * n_greedy)
        logits = np.frombuffer(f.read(4 * n * n_vocab), "<f4").reshape(n, n_vocab)
    for attempt in range(50):
        model = make_data.random_model("gemma3", 1000 + attempt)
        if np.abs(model(torch.tensor([tokens.tolist()])).logits[0].numpy() - logits).max() < 1e-3:
            break
    else:
        raise SystemExit("text_gemma3.ref was not made by these scripts")
    taps, attention = Taps(), {}
    tap_decoder(taps, model.model, attention)
    taps.attention(modeling_gemma3, attention)
    taps.note("logits", model(torch.tensor([tokens[:N_TEXT].tolist()]), use_cache=False).logits[0])
    return [("tokens", tokens[:N_TEXT]), ("step", np.array([STEP]))] + list(taps.seen.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", default=os.path.join(HERE, "data"))
    args = parser.parse_args()
    media.check_version()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for seed, name in enumerate(["e2b", "e4b", "26b", "31b", "gemma3"]):
        records = gemma3_records(os.path.join(HERE, "data")) if name == "gemma3" else media_records(name, seed, args.out)
        media.write_ref(os.path.join(args.out, f"taps_{name}.ref"), records)
        print(f"{name}: {len(records)} records", flush=True)


if __name__ == "__main__":
    main()
