#!/usr/bin/env python3
"""Checkpoints in Google's mobile format against transformers' own quantizer `gemma`: random ones are written as files, loaded by
transformers and converted by export.py. Every linear on the reference's own inputs, and logits, with activations rounded by the file's
scales (--static-activations) and, where these are 0, without.

    python3 tests/test_mobile.py [build/products]

Needs torch, transformers 5.24, safetensors and the built program. Ends with the line "N passed, N failed".
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import wave

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [ROOT, os.path.join(ROOT, "tests"), os.path.join(ROOT, "tools")]

import numpy as np  # noqa: E402
import safetensors.torch  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

import export  # noqa: E402
import make_data  # noqa: E402
import make_media_data  # noqa: E402
import score  # noqa: E402
from score import expect  # noqa: E402

PROGRAM = os.path.join(ROOT, "gemma4")
# Per-layer inputs of 256, so that the table has a scale for each layer, as the real one does.
SHAPE = dict(hidden_size=96, intermediate_size=80, num_hidden_layers=5, layer_types=make_data.layer_types(6, 3)[1:], num_kv_shared_layers=2,
             hidden_size_per_layer_input=256, tie_word_embeddings=False)
BITS = {"vision_tower": 8, "audio_tower.*linear_start": 4, "audio_tower": 2, r"embed_tokens$|lm_head": 2, "per_layer_(input_gate|projection)": 8, "self_attn": 4, r"layers\.[012]\.mlp": 4, "mlp": 2,
        "embed_tokens_per_layer": 4}
PLAIN = ["per_layer_model_projection", "patch_embedder.input_proj", "output_proj", "relative_k_proj", "embedding_projection"]
FIELDS = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj", "down": "mlp.down_proj",
          "ple_gate": "per_layer_input_gate", "ple_proj": "per_layer_projection"}


def packed(w, bits, parts=1):
    """(integers as they are stored, scales (rows, parts)) of a matrix."""
    half = 1 << bits - 1
    x = w.reshape(len(w), parts, -1)
    scale = x.abs().amax(dim=2).clamp(min=1e-6) / (half - 0.5)
    q = torch.clamp(torch.round(x / scale[:, :, None]), -half, half - 1).reshape(w.shape).to(torch.int64)
    if bits == 8:
        return q.to(torch.int8), scale
    fields = (q + half).reshape(len(q), -1, 8 // bits) << torch.arange(0, 8, bits)
    return fields.sum(dim=2).to(torch.uint8), scale


def widths(model):
    """{module: bits} of what the quantizer replaces, by the rule of its configuration."""
    out = {}
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)) and not any(part in name for part in PLAIN):
            found = [(m.start(), i, bits) for i, (pattern, bits) in enumerate(BITS.items()) if (m := re.search(pattern, name))]
            out[name] = min(found)[2]  # the leftmost match, then the earliest pattern
    return out


def ranges(model, run):
    """{linear: (largest input, largest output)} in one run of the model."""
    out, hooks = {}, []

    def watch(name):
        def hook(_, x, y):
            out[name] = tuple(max(old, float(t.abs().max())) for old, t in zip(out.get(name, (0, 0)), (x[0], y)))
        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            hooks.append(module.register_forward_hook(watch(name)))
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return out


def random_text_model(seed):
    return make_data.random_model("e2b", seed, **SHAPE)


def write_checkpoint(folder, model, run, seed, rounds):
    """The model as a checkpoint of the mobile format. rounds: its activations have scales, by what a run shows; small ones, so that some
    values are beyond them."""
    rng, config = np.random.default_rng(seed), getattr(model.config, "text_config", model.config)
    found, tensors, replaced = ranges(model, run), dict(model.state_dict()), widths(model)
    for name, t in tensors.items():  # what is not quantised
        if t.is_floating_point() and t.dim() > 1 and name.removesuffix(".weight") not in replaced:
            tensors[name] = t.to(torch.bfloat16)
    for name, bits in replaced.items():
        w = tensors.pop(name + ".weight")
        if "embed_tokens" in name:
            parts = config.num_hidden_layers if "per_layer" in name else 1
            tensors[name + ".embedding_quantized"], tensors[name + ".embedding_scale"] = packed(w, bits, parts)
            continue
        tensors[name + ".weight"], tensors[name + ".weight_scale"] = packed(w, bits)
        for side, most in zip(("in", "out"), found.get(name, (0, 0))):
            scale = most * rng.uniform(0.6, 1.1) / 127 if rounds and name != "lm_head" else 0
            tensors[f"{name}.{side}put_activation_scale"] = torch.tensor(scale, dtype=torch.float32)
    model.config.quantization_config = {"quant_method": "gemma", "num_bits": 4, "quantize_embeddings": True,
                                        "module_quant_configs": {pattern: {"num_bits": bits} for pattern, bits in BITS.items()},
                                        "modules_to_not_convert": PLAIN}
    os.makedirs(folder)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as f:
        json.dump(model.config.to_dict(), f, default=str)
    safetensors.torch.save_file({name: t.contiguous() for name, t in tensors.items()}, os.path.join(folder, "model.safetensors"), {"format": "pt"})


def load(folder, kind=transformers.Gemma4ForCausalLM):
    """By transformers, in float32."""
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", ignore_mismatched_sizes=True)
    kinds = {type(m).__name__ for m in model.modules()}
    expect({"QuantizedLinear", "QuantizedEmbedding"} <= kinds, "transformers' quantizer has replaced the layers")
    # transformers makes room for one scale a row; the per-layer table's are taken from the file as they are
    tensors = safetensors.torch.load_file(os.path.join(folder, "model.safetensors"))
    for name, module in model.named_modules():
        if name.endswith("embed_tokens_per_layer"):
            module.embedding_scale.data = tensors[name + ".embedding_scale"]
    return model.eval()


def inputs_of(model, ids):
    """{linear: its inputs (tokens, columns)}"""
    out, hooks = {}, []
    for name, module in model.named_modules():
        if type(module).__name__ in ("QuantizedLinear", "Linear"):
            hooks.append(module.register_forward_hook(lambda m, x, y, name=name: out.__setitem__(name, x[0].reshape(-1, x[0].shape[-1]))))
    with torch.no_grad():
        model(ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    return out


def products(program, path, layer, field, x):
    """What the engine makes of the inputs x of a matrix."""
    r = subprocess.run([program, path, "static", str(layer), field, str(len(x))], input=x.numpy().astype("<f4").tobytes(), capture_output=True)
    expect(r.returncode == 0, f"{field} of layer {layer}: {r.stderr.decode()}")
    return np.frombuffer(r.stdout, "<f4").reshape(len(x), -1) if r.returncode == 0 else None


def test_linears(program, model, path, what):
    """Every linear on the reference's own inputs. Float noise may move a value to the next step of its output's scale; few do."""
    c, worst, steps, values = model.config, 0.0, 0, 0
    owners = c.num_hidden_layers - c.num_kv_shared_layers
    ids = torch.tensor([np.random.default_rng(9).integers(5, c.vocab_size, 40).tolist()])
    x = inputs_of(model, ids)

    def module(name):
        return model.get_submodule(name)

    def compare(layer, field, got, want, step):
        nonlocal worst, steps, values
        far = np.abs(got - want) / np.abs(want).max()
        moved = (np.abs(np.abs(got - want) - step) < 0.01 * step) if step else np.zeros(far.shape, bool)
        steps, values, worst = steps + int(moved.sum()), values + far.size, max(worst, float(far[~moved].max()))
        expect(float(far[~moved].max()) <= 1e-5, f"{what}: {field} of layer {layer} is {far[~moved].max():.1e} from the reference")

    with torch.no_grad():
        for layer in range(c.num_hidden_layers):
            for field, inside in FIELDS.items():
                name = f"model.layers.{layer}.{inside}"
                if field in "kv" and layer >= owners:
                    continue
                got = products(program, path, layer, field, x[name])
                m = module(name)
                compare(layer, field, got, m(x[name]).numpy(), float(m.output_activation_scale))
            mlp = module(f"model.layers.{layer}.mlp")
            read = x[f"model.layers.{layer}.mlp.gate_proj"]
            scales = [m.output_activation_scale for m in (mlp.gate_proj, mlp.up_proj)]
            for s in scales:  # steps of two values would meet in their product
                s.data, s.kept = torch.tensor(0.0), s.data
            want = (mlp.act_fn(mlp.gate_proj(read)) * mlp.up_proj(read)).numpy()
            for s in scales:
                s.data = s.kept
            if not any(float(s) for s in scales):
                compare(layer, "gate_up", products(program, path, layer, "gate_up", read), want, 0)
            else:
                want = (mlp.act_fn(mlp.gate_proj(read)) * mlp.up_proj(read)).numpy()
                far = np.abs(products(program, path, layer, "gate_up", read) - want) / np.abs(want).max()
                steps, values = steps + int((far > 1e-5).sum()), values + far.size
        for field, name in (("head", "lm_head"), ("ple.proj", "model.per_layer_model_projection")):
            compare(0, field, products(program, path, 0, field, x[name]), module(name)(x[name]).numpy(), 0)
    print(f"{what}: linears within {worst:.1e} of the reference; {steps} of {values} values a step of their scale away", flush=True)
    expect(steps <= values * 1e-3, f"{what}: {steps} of {values} values a step away")


def logits(path, tokens, scratch, *options):
    """By the program, or with the option "simple" by examples/simple.c, in float32."""
    out, ids = os.path.join(scratch, "logits.f32"), ",".join(map(str, tokens))
    if options == ("simple",):
        command = [os.path.join(scratch, "simple"), path, ids, "0", out]
    else:
        command = [PROGRAM, "logits", "-m", path, "--tokens", ids, "--all", "--kv", "f32", "-o", out, *options]
    r = subprocess.run(command, capture_output=True, text=True)
    expect(r.returncode == 0, f"logits: {r.stderr}")
    return np.fromfile(out, "<f4").reshape(len(tokens), -1) if r.returncode == 0 else None


def test_logits(model, path, scratch, what, bound, share, *options, n=12):
    """Of so many tokens all logits are within the bound."""
    far, rng = [], np.random.default_rng(4)
    for _ in range(n):
        tokens = [2] + rng.integers(30, model.config.vocab_size, 15).tolist()  # no placeholders
        with torch.no_grad():
            want = model(torch.tensor([tokens]), use_cache=False).logits[0].numpy()
        far += np.abs(logits(path, tokens, scratch, *options) - want).max(axis=1).tolist()
    near = sum(f <= bound for f in far)
    print(f"{what}: logits within {bound:g} at {near} of {len(far)} tokens; median {np.median(far):.1e}, largest {max(far):.1e}", flush=True)
    expect(near >= share * len(far), f"{what}: logits within {bound} at {near} of {len(far)} tokens")


def without_scales(model):
    """The model whose activations are left as they are."""
    for name, t in model.named_parameters():
        if name.endswith("put_activation_scale"):
            t.data = torch.tensor(0.0)
    return model


def test_refused(folder, path, scratch):
    """A scale that is none; a file without scales that is to be rounded by them."""
    def changed(change):
        tensors = safetensors.torch.load_file(os.path.join(folder, "model.safetensors"))
        change(tensors)
        safetensors.torch.save_file(tensors, os.path.join(folder, "model.safetensors"), {"format": "pt"})

    def convert():
        r = subprocess.run([sys.executable, os.path.join(ROOT, "export.py"), folder, "-o", path, "--quiet"], capture_output=True, text=True)
        return r.returncode, r.stderr

    name = "model.layers.1.mlp.up_proj.input_activation_scale"
    for value, words in ((torch.tensor(-0.5), "is -0.5, no scale"), (torch.tensor(float("nan")), "holds a NaN"),
                         (torch.ones(3), "has shape (3,) in F32, expected one number")):
        changed(lambda t: t.__setitem__(name, value))
        code, said = convert()
        expect(code == 1 and name in said and words in said, f"a scale of {value}: {said}")
    changed(lambda t: [t.pop(n) for n in list(t) if n.endswith("put_activation_scale")])
    expect(convert()[0] == 0, "a checkpoint without scales is converted")
    r = subprocess.run([PROGRAM, "logits", "-m", path, "--tokens", "2,3", "--static-activations", "-o", "-"], capture_output=True, text=True)
    expect(r.returncode == 1 and "no tensor act" in r.stderr, f"a file without scales: {r.stderr}")


def test_towers(scratch):
    """Soft tokens of a picture and a sound. Of a picture all patches see each other, and a value that float noise moves to its next step
    moves all: the reference itself moves by 7e-3 when the first norms of its layers move by 2e-7."""
    config = make_media_data.config("e2b")
    config.vision_config.use_clipped_linears = config.audio_config.use_clipped_linears = False
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    model = transformers.Gemma4ForConditionalGeneration._from_config(config, attn_implementation="eager").float().eval()
    make_media_data.randomise(model, 5)
    pixels, samples = make_media_data.picture(160, 120, 3), make_media_data.sound(16000, make_media_data.SPEECH, 1)
    picture, sound = os.path.join(scratch, "picture.ppm"), os.path.join(scratch, "sound.wav")
    with open(picture, "wb") as f:
        f.write(b"P6 160 120 255\n" + pixels.tobytes())
    with wave.open(sound, "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(16000)
        f.writeframes((samples * 32768).astype("<i2").tobytes())

    def rows(model):
        ref = make_media_data.Reference(model)
        return [ref.image_rows(pixels, 70), ref.audio_rows(samples)]

    folder, path, out = (os.path.join(scratch, name) for name in ("towers", "towers.g4", "rows.f32"))
    write_checkpoint(folder, model, lambda: rows(model), 5, True)
    make_media_data.write_tokenizer(folder)
    model = load(folder, transformers.Gemma4ForConditionalGeneration)
    export.export(folder, path, dict.fromkeys(("type", "head", "ple", "vision", "audio")), quiet=True)
    with torch.no_grad():
        wanted, plain = rows(model), rows(without_scales(model))
    for what, bound, media, want, unrounded in (("picture", 1e-2, ("--image-tokens", "70", "--image", picture), wanted[0], plain[0]),
                                                ("sound", 1e-5, ("--audio", sound), wanted[1], plain[1])):
        want, unrounded = (x.detach().numpy() for x in (want, unrounded))
        r = subprocess.run([PROGRAM, "encode", "-m", path, "--static-activations", *media, "-o", out], capture_output=True, text=True)
        expect(r.returncode == 0, f"encode: {r.stderr}")
        got = np.fromfile(out, "<f4").reshape(want.shape)
        far, off = (np.abs(got - x).max(axis=1) / np.abs(x).max() for x in (want, unrounded))
        print(f"{what}: {len(far)} soft tokens, median {np.median(far):.1e} of the largest from the reference, largest {far.max():.1e}; "
              f"from the unrounded one {np.median(off):.1e}", flush=True)
        expect((far <= bound).sum() >= 0.9 * len(far), f"{what}: {(far <= bound).sum()} of {len(far)} soft tokens within {bound}")


def main():
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    export.os.fsync = lambda fd: None  # nothing here outlives the run
    program = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build", "products")
    for seed, rounds in ((1, True), (2, True), (3, False)):
        with tempfile.TemporaryDirectory() as scratch:
            folder, path = os.path.join(scratch, "mobile"), os.path.join(scratch, "mobile.g4")
            model = random_text_model(seed)
            ids = torch.tensor([np.random.default_rng(seed).integers(5, model.config.vocab_size, 150).tolist()])
            write_checkpoint(folder, model, lambda: model(ids, use_cache=False), seed, rounds)
            with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
                json.dump(make_data.tiny_tokenizer(model.config.vocab_size), f)
            model = load(folder)
            export.export(folder, path, dict.fromkeys(("type", "head", "ple", "vision", "audio")), quiet=True)
            what = f"seed {seed}, {'static scales' if rounds else 'without rounding'}"
            test_linears(program, model, path, what)
            test_logits(model, path, scratch, what, 1e-3 if rounds else 2e-4, 0.9 if rounds else 1, "--static-activations")
            model = without_scales(model)
            test_logits(model, path, scratch, what + ", rounded finer, against unrounded", 0.3, 0.5)
            r = subprocess.run([os.environ.get("CC", "cc"), "-std=c11", "-O2", os.path.join(ROOT, "examples", "simple.c"), "-o",
                                os.path.join(scratch, "simple"), "-lm"], capture_output=True, text=True)
            expect(r.returncode == 0, f"examples/simple.c is built: {r.stderr}")
            test_logits(model, path, scratch, what + ", examples/simple.c, against unrounded", 2e-4, 1, "simple", n=4)
            if seed == 1:
                test_refused(folder, path, scratch)
    with tempfile.TemporaryDirectory() as scratch:
        test_towers(scratch)
    return score.end()


if __name__ == "__main__":
    sys.exit(main())
