#!/usr/bin/env python3
"""Scales that are searched, and the statistics that weigh the errors: ours, written by the program, and llama.cpp's. Needs numpy and
the program. Ends with the line "N passed, N failed".
"""

import os
import subprocess
import sys
import tempfile

import checkpoints as make
import export
import score
from score import expect
from test_export_files import PROGRAM, Place, run

import numpy as np


def test_search(_):
    """The weighted error of a block is never above plain rounding's, and much smaller in all; the bytes are a block's."""
    rng = np.random.default_rng(1)
    x = rng.standard_t(4, (64, 512)).astype(np.float32)
    x[3], x[4, :256], x[5, 7], x[6] = 0, 0, 1e3, 1e-12
    columns = np.exp(2 * rng.standard_normal(512)).astype(np.float32)
    columns[::50] = 0
    for t in export.TYPES:
        if t.search is None:
            continue
        blocks, w = x.reshape(-1, t.block), np.broadcast_to(columns, x.shape).reshape(-1, t.block)

        def errors(made):
            return (w.astype(np.float64) * np.square(blocks - t.dequantize(*made))).sum(axis=1)

        plain, found = errors(t.quantize(blocks, "x")), errors(made := t.searched(blocks, w, "x"))
        expect((found <= plain * (1 + 1e-4) + 1e-30).all(), f"{t.name}: no block is worse: {(found / np.maximum(plain, 1e-30)).max()}")
        expect(found.sum() < 0.97 * plain.sum(), f"{t.name}: the error is smaller: {found.sum() / plain.sum():.3f}")
        q, scales = t.unpack(t.blocks(*made))
        expect(np.array_equal(q, made[0]) and all(np.array_equal(a, b) for a, b in zip(scales, made[1])), f"{t.name}: its blocks hold it")
        kinds = [np.dtype(d) for d, _ in t.scales]
        expect(made[0].dtype == np.int8 and [a.dtype for a in made[1]] == kinds, f"{t.name}: {[a.dtype for a in made[1]]}")


CONFIG = make.config()


def test_program(place):
    """The program measures every matrix, and what it writes is read."""
    model = os.path.join(make.ROOT, "tests", "data", "text_26b.g4")
    out, text = place.path("m.stats"), place.file("text", b"The sky is blue. " * 40)
    p = subprocess.run([PROGRAM, "calibrate", "-m", model, "-f", text, "-o", out], capture_output=True, text=True)
    expect(p.returncode == 0 and "tensors over" in p.stderr, f"calibrate: {p.stderr}")
    s = export.Statistics(out)
    expect("l.0.q" in s.columns and "l.0.experts.down" in s.columns and len(s.columns["l.0.experts.down"]) > 1, f"names: {list(s.columns)[:9]}")
    expect(all(np.isfinite(c).all() and (c > 0).all() for c in s.columns.values()), "weights are positive numbers")
    counts = {name: t.data[:] for name, t in export.read_safetensors(export.File(out), {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}).items()
              if name.endswith(".count")}
    used = counts["l.0.experts.down.count"].sum() / counts["l.0.q.count"].sum()
    expect(used == int(used) >= 1 and np.array_equal(counts["l.0.experts.down.count"], counts["l.0.experts.gate_up.count"]),
           f"experts count their own tokens: {used} a token")


def test_kinds(place):
    """Ours and an imatrix that say the same make the same file, and another one than plain rounding."""
    where = place.folder("m", CONFIG)
    rng, path = np.random.default_rng(2), os.path.join(place.out, "x.g4")

    def convert(*options):
        code, said = run(where, "-o", path, "--type", "q4_0", "--quiet", *options)
        expect(code == 0, f"{options}: {said}")
        with open(path, "rb") as f:
            data = f.read()
        os.unlink(path)
        return data

    plain, searched = convert("--no-search"), convert()
    expect(len(plain) == len(searched) and plain != searched, "searched scales differ, bytes do not become more")
    expect(searched == convert(), "two searches give the same")
    hidden = CONFIG["text_config"]["hidden_size"] if "text_config" in CONFIG else CONFIG["hidden_size"]
    means, counts = rng.random((1, hidden)).astype(np.float32), [64]
    mine = place.file("m.stats", make.statistics({"l.0.q": (means, counts), "l.0.gate_up": (means * 2, counts)}))
    theirs = place.file("m.gguf", make.imatrix({"blk.0.attn_q.weight": (means * 64, counts), "blk.0.ffn_gate.weight": (means * 128, counts),
                                                 "blk.0.ffn_up.weight": (means * 128, counts)}))
    a, b = convert("--calibration", mine), convert("--calibration", theirs)
    expect(a == b, "an imatrix says the same")
    expect(a != searched, "columns count")
    expect(plain == convert("--no-search", "--calibration", mine), "without search nothing is weighed")


def test_refusals(place):
    where = place.folder("m", CONFIG)
    row = np.ones((1, 32), np.float32)

    def refused(data, *words):
        place.refused(where, *words, options=("--calibration", place.file("s", data)))

    place.refused(where, "nowhere", "No such file", options=("--calibration", place.path("nowhere")))
    refused(b"", "s: empty file")
    refused(b"nonsense" * 9, "s: ", "expected what gemma4 calibrate writes")
    refused(make.safetensors(make.tensors(CONFIG)), "s: expected what gemma4 calibrate writes")
    refused(make.statistics({"x": (row, [1])}), "s: has no tensor of this model")
    refused(make.statistics({"l.0.q": (np.ones((1, 999), np.float32), [1])}), "l.0.q has shape (1, 999), expected (1, ", "of another model?")
    refused(make.statistics({"l.0.q": (-row, [1])}), "l.0.q", "negative or no number")
    refused(make.statistics({"l.0.q": (row * np.nan, [1])}), "l.0.q", "negative or no number")
    refused(make.statistics({"l.0.q": (row, [-1])}), "l.0.q", "negative or no number")
    for count in (np.nan, np.inf, -1):
        refused(make.imatrix({"blk.0.attn_q.weight": (row, [count])}), "l.0.q", "negative or no number")
    refused(make.statistics({"l.0.q": (row, [1, 2])}), "l.0.q", "counts in I64 beside it")
    refused(make.statistics({"l.0.q": (row, [1])})[:-5], "cut short")
    refused(make.imatrix({"blk.0.attn_q.weight": (row, [1, 2])}), "attn_q.weight.in_sum2", "1 counts beside it")
    refused(make.imatrix({"blk.0.attn_q.weight": (row, [1])}, "model"), "general.type is 'model'")
    refused(make.imatrix({"blk.0.attn_q.weight": (row, [1])})[:-40], "cut short")


def test_mixture(place):
    """What a checkpoint in float becomes when nothing is said."""
    halves = {n: [i for i in range(n) if export.takes_more_bits(i, n)] for n in (1, 8, 18, 30, 35, 48)}
    expect(all(n < 8 or 0.4 * n <= len(more) <= 0.6 * n for n, more in halves.items()), f"half of all layers: {halves}")
    auto = export.automatic_types(export.Source("x"))
    wide = [[(export.Stored.of("x", np.random.default_rng(3).standard_normal((16, 512)).astype(np.float32)), 0)]]
    for group, cols, want in (("type", 512, export.Q4_K), ("more", 512, export.Q6_K), ("head", 512, export.Q6_K)):
        expect(auto[group].choose(wide, 16, cols) == want, f"{group} of {cols} columns")
    narrow = [[(export.Stored.of("x", np.random.default_rng(3).standard_normal((16, 96)).astype(np.float32)), 0)]]
    for group, want in (("type", export.Q5_0), ("more", export.Q8_0), ("head", export.Q8_0)):
        expect(auto[group].choose(narrow, 16, 96) == want, f"{group} of 96 columns")
    q = np.random.default_rng(4).integers(-8, 8, (16, 512)).astype(np.float32)
    q[:, ::32] = -8
    lattice = [[(export.Stored.of("x", q * np.float32(0.5)), 0)]]
    expect(all(auto[group].choose(lattice, 16, 512) == export.Q4_0 for group in ("type", "more", "head")), "a lattice is q4_0")


def main():
    for test in (test_search, test_program, test_kinds, test_refusals, test_mixture):
        with tempfile.TemporaryDirectory() as scratch:
            test(Place(scratch))
    return score.end()


if __name__ == "__main__":
    sys.exit(main())
