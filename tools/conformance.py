#!/usr/bin/env python3
"""Write docs/conformance.md: what gemma4.c makes of pictures and sound, case by case, beside transformers and beside the
rules of llama.cpp.

    python3 tools/conformance.py [--gemma4 PROGRAM] [--output docs/conformance.md]

Needs torch, transformers and Pillow. The rules of llama.cpp are those of its folder tools/mtmd as llama-cpp-python 0.3.36
ships it, written down here again in numpy; nothing of it is run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import wave

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests"))
import make_media_data as data  # noqa: E402

BLOCK = 480000  # samples of 30 s


def run(program, *args):
    """The float32 rows that a command writes; None when it fails."""
    with tempfile.TemporaryDirectory() as tmp:
        out = os.path.join(tmp, "out")
        done = subprocess.run([program, *map(str, args), "-o", out], capture_output=True, text=True)
        if done.returncode:
            return None
        shape = [line.split()[1:] for line in done.stderr.splitlines() if line.startswith("shape ")][0]
        return np.fromfile(out, "<f4").reshape([int(n) for n in shape])


# ---- Sound ------------------------------------------------------------------------------------------


def filters():
    """(257, 128): HTK triangles, 0 to 8000 Hz, not normalised by area."""
    mel = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 130)
    edge, bins = 700 * (10 ** (mel / 2595) - 1), np.linspace(0, 8000, 257)
    up = (bins[:, None] - edge[:-2]) / np.diff(edge)[:-1]
    down = (edge[2:] - bins[:, None]) / np.diff(edge)[1:]
    return np.maximum(0, np.minimum(up, down))


def llama_mel(samples):
    """One block by llama.cpp's rules: log(max(mel, floor)) where the reference has log(mel + floor)."""
    n = int((len(samples) + 160 - 321) / 160) + 1  # C's division cuts towards zero, so 2 to 160 samples give a frame
    if n <= 0:
        return np.zeros((0, 128))
    padded = np.zeros(max((n - 1) * 160 + 512, len(samples) + 160), np.float32)
    padded[160 : 160 + len(samples)] = samples
    window = np.zeros(512, np.float32)
    window[:320] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(320) / 320)
    frames = np.stack([padded[160 * i : 160 * i + 512] for i in range(n)]) * window
    return np.log(np.maximum(np.abs(np.fft.rfft(frames)) @ filters(), 1e-3))


def sound_cases():
    """(name, samples)"""
    speech = data.sound(BLOCK, data.SPEECH, 3)
    yield "1 s of silence", data.sound(16000, data.SILENCE, 0)
    yield "1 s with a click", data.sound(16000, data.CLICK, 0)
    yield "2 samples", speech[:2]
    yield "160 samples", speech[:160]
    yield "161 samples", speech[:161]
    yield "0.02 s", speech[:320]
    yield "1 s of quiet noise (-60 dB)", (speech[456000:459200].repeat(5) * np.float32(0.1)).astype(np.float32)
    yield "5.3 s of tones", speech[:84800]
    yield "29.99 s of tones", speech[:479840]
    yield "30 s of tones", speech
    yield "30.01 s of tones", data.sound(480160, data.SPEECH, 3)
    yield "70 s of tones", np.tile(data.sound(240000, data.SPEECH, 3), 5)[:1120000]


def difference(a, b):
    """Largest difference of two lists of blocks; frames that only one of them has are left out."""
    worst = 0.0
    for x, y in zip(a, b):
        n = min(len(x), len(y))
        worst = max(worst, float(np.abs(x[:n].astype(np.float64) - y[:n]).max()) if n else 0.0)
    return worst


def shape(blocks):
    frames = " + ".join(str(len(b)) for b in blocks)
    return "%s -> %d" % (frames, sum((len(b) + 3) // 4 for b in blocks))


def sounds(program):
    from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor

    extractor = Gemma4AudioFeatureExtractor()

    def reference(samples):
        """The valid frames; nothing when there is none."""
        out = extractor([samples], return_tensors="np", sampling_rate=16000)
        return out["input_features"][0][out["input_features_mask"][0].astype(bool)]

    lines = [
        "## Sound",
        "",
        "Log-mel frames (10 ms) and the soft tokens they become, `frames -> tokens`, block by block. Differences are the",
        "largest over all frames and bands, in natural logarithms: of gemma4.c from the reference on the same block, and of",
        "llama.cpp's rules from the reference on the frames that both have.",
        "",
        "| case | transformers | gemma4.c | off by | llama.cpp | off by |",
        "|---|---|---|---|---|---|",
    ]
    for name, samples in sound_cases():
        with tempfile.TemporaryDirectory() as tmp:
            path = os.path.join(tmp, "case.wav")
            with wave.open(path, "wb") as f:
                f.setnchannels(1)
                f.setsampwidth(2)
                f.setframerate(16000)
                f.writeframes(np.rint(samples * 32768).astype("<i2").tobytes())
            samples = np.rint(samples * 32768).astype(np.float32) / np.float32(32768)
            ours, own_reference, at = [], [], 0
            while True:
                mel = run(program, "mel", "-f", path, "--block", len(ours)) if len(samples) > 160 else None
                if mel is None:
                    break
                ours.append(mel)
                # 29 full seconds or so, then what is left: the cut is where our block ends
                length = len(samples) - at if len(samples) - at <= BLOCK else cut(samples[at:])
                own_reference.append(reference(samples[at : at + length]))
                at += length
        theirs = [reference(samples)] if len(samples) > 160 else [np.zeros((0, 128))]
        llama = [llama_mel(samples[i : i + BLOCK]) for i in range(0, len(samples), BLOCK)]
        lines.append(
            "| %s | %s%s | %s | %.1g | %s | %.2g |"
            % (
                name,
                shape(theirs),
                ", the rest is lost" if len(samples) > BLOCK else "",
                shape(ours) if ours else "refused: too short",
                difference(ours, own_reference),
                shape(llama),
                difference(llama, theirs),
            )
        )
    return lines + [
        "",
        "* transformers keeps the first 30 s of a sound and drops the rest without a word. llama.cpp cuts every 30 s, in the",
        "  middle of a word if one is spoken there. gemma4.c cuts at the quietest 200 ms of the last 5 s before each limit",
        "  and says so.",
        "* llama.cpp takes `log(max(mel, 0.001))` where the reference has `log(mel + 0.001)`: off by up to ln 2 = 0.69, most",
        "  where it is quiet.",
        "* Under 161 samples there is no whole frame: the reference gives no token, llama.cpp one or none, gemma4.c an error",
        "  that says so.",
        "",
    ]


def cut(samples):
    """The rule of g4_audio_block: the quietest 200 ms of the last 5 s before the limit, the later one on a tie."""
    best, least = 0, np.inf
    energy = np.concatenate([[0.0], np.cumsum(samples[: BLOCK + 1600].astype(np.float64) ** 2)])
    for at in range(400000, min(BLOCK, len(samples) - 1600) + 1, 160):
        e = energy[at + 1600] - energy[at - 1600]
        if e <= least * (1 + 1e-12):
            best, least = at, min(e, least)
    return best


# ---- The page ----------------------------------------------------------------------------------------

SECTIONS = [sounds]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gemma4", default=os.path.join(HERE, "..", "gemma4"))
    parser.add_argument("--output", default=os.path.join(HERE, "..", "docs", "conformance.md"))
    args = parser.parse_args()
    import transformers

    lines = [
        "# Conformance of the preprocessing",
        "",
        "Written by `tools/conformance.py`; transformers %s. What a model sees and hears is decided before its first"
        % transformers.__version__,
        "layer runs. This page shows, case by case, what becomes of a file here, in the reference, and by the rules of",
        "llama.cpp (as llama-cpp-python 0.3.36 ships them).",
        "",
    ]
    for section in SECTIONS:
        lines += section(args.gemma4)
    os.makedirs(os.path.dirname(args.output), exist_ok=True)
    with open(args.output, "w", encoding="utf-8") as f:
        f.write("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
