#!/usr/bin/env python3
"""Make the golden data of the text decoder: tiny random models of every family member, and what transformers says of them.

    python3 tests/make_data.py [-o DIR] [MEMBER ...]      (default: tests/data, all members)

Needs torch, transformers 5.24, numpy. Every weight is random, norms, scalars and router scales included, and no dimension
is a multiple of what a kernel would like, so that a mistake shows. Written for each member of MEMBERS:

  text_<member>.g4    the model, type f32, made by export.py; text_<member>.bf16.g4, .q8_0.g4, .q4_0.g4 for some, and .mixed.g4
                      with all the types that a GGUF may bring, a matrix of one after a matrix of another
  text_<member>.ref   what transformers computes from it in float32 (attn_implementation="eager"), little-endian:
      char     magic[8]           "G4TEXT1\\n"
      uint32   n_tokens           a prompt several windows long
      uint32   n_vocab
      uint32   n_greedy           greedy continuation of the prompt
      uint32   n_layers
      uint32   hidden
      float32  margin             smallest distance of the best from the second logit along the continuation
      int32    tokens[n_tokens]
      int32    greedy[n_greedy]
      float32  logits[n_tokens][n_vocab]        softcapped
      float32  states[n_layers + 1][hidden]     of the last token: the scaled embedding, then the stream after each layer
                                                (after the last layer: normalised)
"""

import argparse
import contextlib
import json
import os
import struct
import sys
import tempfile

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, Gemma4ForCausalLM, Gemma4TextConfig  # noqa: E402

import export  # noqa: E402

N_PROMPT, N_GREEDY = 120, 24
MARGIN = 0.5       # of the greedy continuation
SPREAD = 3.0       # standard deviation of the logits before the softcap
POST, TAIL = 0.7, 0.4  # how much smaller than 1 the norms after a branch are; log-spread of the lengths of embedding rows

# Text the small vocabulary is made from.
CORPUS = """the cat sat on the mat and the dog ran to the river where the water was cold and clear and there they stayed
all day long under the old tree that the wind had bent over the years while other animals came and went without a sound
hello world this is a small test of the tokenizer with numbers 0 1 2 3 4 5 6 7 8 9 and signs . , ; : ! ? ' " ( ) - + * / = < >"""

MARKERS = ["<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>', "<|think|>",
           "<|channel>", "<channel|>", "<|turn>", "<turn|>", "<|image>", "<image|>", "<|image|>", "<|audio>", "<audio|>", "<|audio|>",
           "<|video|>"]


def tiny_tokenizer(n_vocab, markers=MARKERS):
    """A tokenizer.json of Gemma's kind with exactly n_vocab tokens: control tokens, bytes, characters, merges of a small corpus."""
    space = "\u2581"
    control = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *markers]
    words = [list(w) for w in (space + CORPUS.replace("\n", " ").replace(" ", " " + space)).split()]
    tokens = control + [f"<0x{b:02X}>" for b in range(256)] + ["\n"] + sorted({c for w in words for c in w} | set("ABCDEFGH"))
    merges = []
    while len(tokens) < n_vocab:
        pairs = {}
        for w in words:
            for pair in zip(w, w[1:]):
                pairs[pair] = pairs.get(pair, 0) + 1
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(list(best))
        if best[0] + best[1] not in tokens:
            tokens.append(best[0] + best[1])
        for w in words:
            i = 0
            while i + 1 < len(w):
                if (w[i], w[i + 1]) == best:
                    w[i:i + 2] = [w[i] + w[i + 1]]
                i += 1
    if len(tokens) != n_vocab:
        raise SystemExit(f"tiny_tokenizer: {n_vocab} tokens are too few for {len(tokens)}")
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": t, **flags} for i, t in enumerate(control)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": space},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": space}, "content": " "},
                                                     {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": True, "byte_fallback": True, "ignore_merges": False, "vocab": {t: i for i, t in enumerate(tokens)},
                  "merges": merges},
    }


def layer_types(n, every):
    return ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(n)]


ROPE4 = {"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
         "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0}}
GEMMA4 = dict(final_logit_softcapping=30.0, max_position_embeddings=1024, rope_parameters=ROPE4, sliding_window=24)

# member -> (class, config). Each stands for one of the family; the comments say what only it has.
MEMBERS = {
    # per-layer embeddings, shared keys and values, double-wide MLP behind them, one KV head
    "e2b": (Gemma4TextConfig, dict(GEMMA4, vocab_size=370, vocab_size_per_layer_input=370, hidden_size=56, intermediate_size=44,
                                   num_hidden_layers=8, layer_types=layer_types(10, 5)[2:], num_attention_heads=4, num_key_value_heads=1,
                                   head_dim=16, global_head_dim=32, hidden_size_per_layer_input=12, num_kv_shared_layers=4,
                                   use_double_wide_mlp=True)),
    # two KV heads, another pattern, an odd window, no double width
    "e4b": (Gemma4TextConfig, dict(GEMMA4, vocab_size=373, vocab_size_per_layer_input=373, hidden_size=60, intermediate_size=76,
                                   num_hidden_layers=6, layer_types=layer_types(6, 2), num_attention_heads=4, num_key_value_heads=2,
                                   head_dim=14, global_head_dim=20, hidden_size_per_layer_input=20, num_kv_shared_layers=3,
                                   sliding_window=31)),
    # experts beside the dense MLP, keys as values on full layers with fewer heads
    "26b": (Gemma4TextConfig, dict(GEMMA4, vocab_size=364, hidden_size=40, intermediate_size=36, num_hidden_layers=4,
                                   layer_types=layer_types(4, 2), num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                                   global_head_dim=32, num_global_key_value_heads=1, attention_k_eq_v=True, hidden_size_per_layer_input=0,
                                   enable_moe_block=True, num_experts=7, top_k_experts=3, moe_intermediate_size=12,
                                   use_bidirectional_attention="vision")),
    # dense, keys as values, dimensions above 64, untied head
    "31b": (Gemma4TextConfig, dict(GEMMA4, vocab_size=367, hidden_size=72, intermediate_size=100, num_hidden_layers=4,
                                   layer_types=layer_types(4, 2), num_attention_heads=6, num_key_value_heads=3, head_dim=16,
                                   global_head_dim=24, num_global_key_value_heads=2, attention_k_eq_v=True, hidden_size_per_layer_input=0,
                                   use_bidirectional_attention="vision", tie_word_embeddings=False)),
    # Gemma 3: no v norm, RoPE over the whole head with a linear factor on full layers, norms of 1 + w, no softcap
    "gemma3": (Gemma3TextConfig, dict(vocab_size=362, hidden_size=52, intermediate_size=60, num_hidden_layers=5,
                                      layer_types=layer_types(5, 3)[:4] + ["full_attention"], num_attention_heads=4,
                                      num_key_value_heads=1, head_dim=24, query_pre_attn_scalar=32, sliding_window=24,
                                      max_position_embeddings=1024,
                                      rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                                                       "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0}})),
}
QUANTISED = {"e2b": ("bf16", "q8_0", "q4_0", "mixed"), "26b": ("q8_0", "q4_0", "mixed")}


def random_model(member, seed, **changes):
    """A model with every weight random: norms around their neutral value, the rest scaled to keep activations of order one."""
    config_class, fields = MEMBERS[member]
    config = config_class(pad_token_id=0, eos_token_id=1, bos_token_id=2, **{**fields, **changes})
    config._attn_implementation = config._experts_implementation = "eager"
    model = (Gemma3ForCausalLM if config_class is Gemma3TextConfig else Gemma4ForCausalLM)(config).eval()
    g = torch.Generator().manual_seed(seed)
    neutral = 0.0 if config_class is Gemma3TextConfig else 1.0

    def normal(t, mean, std):
        t.copy_(mean + std * torch.randn(t.shape, generator=g))

    with torch.no_grad():
        for name, t in list(model.named_parameters()) + [(n, b) for n, b in model.named_buffers() if n.endswith("layer_scalar")]:
            if name.endswith("layer_scalar"):
                t.copy_(0.7 + 0.6 * torch.rand(t.shape, generator=g))
            elif name.endswith(("q_norm.weight", "k_norm.weight")):
                normal(t, neutral - 0.3, 0.2)
            elif "norm" in name and "post" in name:  # branches smaller than the stream: else noise grows from layer to layer
                normal(t, neutral - POST, 0.1)
            elif name.endswith(("per_expert_scale", "router.scale")):
                normal(t, 1.0, 0.3)
            elif "norm" in name:
                normal(t, neutral, 0.2)
            elif "embed_tokens" in name:
                normal(t, 0.0, 1.0 / t.shape[1] ** 0.5 if "per_layer" not in name else config.hidden_size_per_layer_input ** -0.5)
            elif name.endswith("router.proj.weight"):
                normal(t, 0.0, 1.0)
            else:
                normal(t, 0.0, t.shape[-1] ** -0.5)
        # Rows of very different length give few close calls between the best two tokens, yet the same spread.
        embed, head = model.get_input_embeddings().weight, model.lm_head.weight
        for rows in [embed] if head is embed else [embed, head]:
            rows.mul_(torch.exp(TAIL * torch.randn((rows.shape[0], 1), generator=g)))
        # Random signs in the final norm keep a tied head from repeating its own input; its size sets the spread.
        w = model.model.norm.weight
        w.copy_((w + 1 - neutral) * torch.randn(w.shape, generator=g).sign() - (1 - neutral))
        ids = torch.arange(5, 205)[None] % config.vocab_size
        softcap, model.config.final_logit_softcapping = config.final_logit_softcapping, None
        spread = model(ids, use_cache=False).logits.std()
        model.config.final_logit_softcapping = softcap
        scale = float(f"{SPREAD / float(spread):.3g}")  # rounded, so that another CPU makes the same file
        w.copy_((w + 1 - neutral) * scale - (1 - neutral))
    return model


def greedy(model, tokens, n):
    """Continue greedily, one token at a time with the cache: ids, smallest margin of the best over the second logit."""
    ids, margin, cache, x = [], float("inf"), None, torch.tensor([tokens])
    with torch.no_grad():
        for _ in range(n):
            out = model(x, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, top = out.past_key_values, out.logits[0, -1].topk(2)
            ids.append(int(top.indices[0]))
            margin = min(margin, float(top.values[0] - top.values[1]))
            x = top.indices[:1][None]
    return ids, margin


def find_prompt(model, seed):
    """A random prompt whose continuation is nowhere a close call, does not stop, and is not all the same; or None.

    Of each random beginning every last token is tried at once; those with a close call drop out of the batch."""
    rng, v = np.random.default_rng(seed), model.config.vocab_size
    for _ in range(12):
        start = [2] + rng.integers(5, v, N_PROMPT - 2).tolist()
        with torch.no_grad():
            cache = model(torch.tensor([start]), use_cache=True, logits_to_keep=1).past_key_values
            cache.batch_repeat_interleave(v)
            ids = torch.arange(v)[:, None]
            for _ in range(N_GREEDY):
                out = model(ids[:, -1:], past_key_values=cache, use_cache=True)
                top = out.logits[:, -1].topk(2)
                alive = ((top.values[:, 0] - top.values[:, 1] > MARGIN) & (top.indices[:, 0] > 4)).nonzero()[:, 0]
                if not len(alive):
                    break
                ids = torch.cat([ids, top.indices[:, :1]], 1)[alive]
                cache.batch_select_indices(alive)
        for row in ids.tolist() if len(alive) else []:
            tokens = start + row[:1]
            if len(set(row)) < 7 or row[0] < 5:
                continue
            alone, margin = greedy(model, tokens, N_GREEDY)  # what counts is the prompt by itself
            if alone == row[1:] and margin > MARGIN:
                return tokens, alone, margin
    return None


def save_folder(model, folder, template=None):
    """As the hub would hold it."""
    model.save_pretrained(folder)
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(tiny_tokenizer(model.config.vocab_size), f)
    if template:
        with open(os.path.join(folder, "chat_template.jinja"), "w", encoding="utf-8") as f:
            f.write(template)


def reference(model, tokens, ids, margin):
    """The .ref file's bytes."""
    with torch.no_grad():
        out = model(torch.tensor([tokens]), output_hidden_states=True, use_cache=False)
    c = model.config
    states = torch.stack([h[0, -1] for h in out.hidden_states]).numpy()
    head = struct.pack("<8s5If", b"G4TEXT1\n", len(tokens), c.vocab_size, len(ids), c.num_hidden_layers, c.hidden_size, margin)
    return b"".join([head, np.array(tokens, "<i4").tobytes(), np.array(ids, "<i4").tobytes(),
                     out.logits[0].numpy().astype("<f4").tobytes(), states.astype("<f4").tobytes()])


class InTurns(export.Auto):
    """The types of GGUFs, one after the other, from a first one on."""

    def __init__(self, first):
        self.turn = export.TYPE_NAMES.index(first)

    def choose(self, parts, rows, cols):
        at, self.turn = self.turn, self.turn + 1 if self.turn < export.Q6_K else export.Q4_1
        return at


def types(name):
    """As export.py's command line sets them for --type name."""
    if name == "auto":
        return dict.fromkeys(("type", "head", "ple", "vision", "audio"))
    if name == "mixed":
        return {"type": InTurns("q4_k"), "head": InTurns("q6_k"), "ple": InTurns("q5_k"), "vision": export.Q8_0, "audio": export.Q8_0}
    t = export.TYPE_NAMES.index(name)
    careful = t if name in ("f32", "bf16") else export.Q8_0
    return {"type": t, "head": t, "ple": careful, "vision": careful, "audio": careful}


def make(member, out, seed=1):
    """Write the files of one member into the folder out."""
    for attempt in range(50):
        model = random_model(member, 1000 * seed + attempt)
        found = find_prompt(model, attempt)
        if found:
            break
    else:
        raise SystemExit(f"{member}: no continuation with a margin of {MARGIN} found")
    with tempfile.TemporaryDirectory() as scratch:
        folder = os.path.join(scratch, "random-" + member)
        with open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
            save_folder(model, folder)
        for name in ("f32", *QUANTISED.get(member, ())):
            path = os.path.join(out, f"text_{member}.g4" if name == "f32" else f"text_{member}.{name}.g4")
            export.export(folder, path, types(name), quiet=True)
    with open(os.path.join(out, f"text_{member}.ref"), "wb") as f:
        f.write(reference(model, *found))
    print(f"{member}: attempt {attempt}, margin {found[2]:.2f}, {sum(p.numel() for p in model.parameters())} weights", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-o", "--output", default=os.path.join(ROOT, "tests", "data"))
    p.add_argument("members", nargs="*", metavar="MEMBER", help="of " + ", ".join(MEMBERS))
    a = p.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    os.makedirs(a.output, exist_ok=True)
    for member in a.members or MEMBERS:
        make(member, a.output)


if __name__ == "__main__":
    main()
