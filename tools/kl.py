#!/usr/bin/env python3
"""How far model files are from another one: KL divergence and the share of equal top tokens on a text.

    python3 tools/kl.py REFERENCE.g4 MODEL.g4... -f TEXT [--tokens 640] [--program ./gemma4]

Mean over positions of KL(reference || model) in nats, of the next token; both read the same ids, BOS in front. Needs numpy.
"""

import argparse
import os
import subprocess
import tempfile

import numpy as np


def logits(program, model, ids, folder):
    out = os.path.join(folder, "logits.f32")
    subprocess.run([program, "logits", "-m", model, "--tokens", ",".join(ids), "--all", "-o", out, "--quiet", "-c", str(len(ids))],
                   check=True, stderr=subprocess.DEVNULL)
    x = np.fromfile(out, "<f4").reshape(len(ids), -1)
    os.unlink(out)
    return x


def log_softmax(x):
    x = x.astype(np.float64)
    x -= x.max()
    return x - np.log(np.exp(x).sum())


def compare(reference, model):
    """(KL in nats, share of equal top tokens) over rows of logits."""
    kl = top = 0
    for a, b in zip(reference, model):
        p, q = log_softmax(a), log_softmax(b)
        kl += float(np.exp(p) @ (p - q))
        top += int(p.argmax() == q.argmax())
    return kl / len(reference), top / len(reference)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("reference")
    p.add_argument("models", nargs="+")
    p.add_argument("-f", "--file", required=True, metavar="TEXT")
    p.add_argument("--tokens", type=int, default=640)
    p.add_argument("--program", default="./gemma4")
    a = p.parse_args()
    ids = subprocess.run([a.program, "tokenize", "-m", a.reference, "-f", a.file, "--bos", "--quiet"], check=True, capture_output=True, text=True)
    ids = ids.stdout.split()[:a.tokens]
    with tempfile.TemporaryDirectory() as folder:
        want = logits(a.program, a.reference, ids, folder)
        for model in a.models:
            kl, top = compare(want, logits(a.program, model, ids, folder))
            print(f"{model}: {os.path.getsize(model) / 1e6:.1f} MB, {len(ids)} tokens: KL {kl:.5f}, top-1 {100 * top:.1f} %", flush=True)


if __name__ == "__main__":
    main()
