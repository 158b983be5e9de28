#!/usr/bin/env python3
"""Write docs/conformance.md: what gemma4.c makes of pictures and sound, case by case, beside transformers and beside the
rules of llama.cpp.

    python3 tools/conformance.py [--gemma4 PROGRAM] [--output docs/conformance.md]

Needs torch, transformers, Pillow 13 and make. The rules of llama.cpp are those of its folder tools/mtmd as
llama-cpp-python 0.3.36 ships it, written down here again in numpy; nothing of it is run.
"""

import argparse
import ctypes
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


# ---- Pictures ----------------------------------------------------------------------------------------


def llama_size(width, height, low, high):
    """calc_size_preserved_ratio of llama.cpp in float32, sides in multiples of 48, low to high tokens."""
    def rounded(x):
        return int(np.floor(np.float32(x) / np.float32(48) + np.float32(0.5))) * 48

    def up(x):
        return int(np.ceil(np.float32(x) / np.float32(48))) * 48

    def down(x):
        return int(np.floor(np.float32(x) / np.float32(48))) * 48

    w, h = max(48, rounded(width)), max(48, rounded(height))
    area = np.float32(height) * np.float32(width)
    if w * h > high * 2304:
        beta = np.sqrt(area / np.float32(high * 2304), dtype=np.float32)
        w, h = max(48, down(np.float32(width) / beta)), max(48, down(np.float32(height) / beta))
    elif w * h < low * 2304:
        beta = np.sqrt(np.float32(low * 2304) / area, dtype=np.float32)
        w, h = up(np.float32(width) * beta), up(np.float32(height) * beta)
    return w, h


def llama_pixels(image, low=70, high=1120):
    """(h, w, 3), and the part of it that is picture: scaled by one factor, centred on black."""
    from PIL import Image
    w, h = llama_size(image.width, image.height, low, high)
    if (w, h) == image.size:
        return np.asarray(image), (w, h)
    scale = min(np.float32(w) / np.float32(image.width), np.float32(h) / np.float32(image.height))
    nw = min(int(np.ceil(np.float32(image.width) * scale)), w)
    nh = min(int(np.ceil(np.float32(image.height) * scale)), h)
    canvas = Image.new("RGB", (w, h))
    canvas.paste(image.resize((nw, nh), Image.BICUBIC), ((w - nw) // 2, (h - nh) // 2))
    return np.asarray(canvas), (nw, nh)


def patches_of(pixels):
    h, w, _ = pixels.shape
    p = (pixels.astype(np.float64) / 255).astype(np.float32).reshape(h // 16, 16, w // 16, 16, 3)
    return p.transpose(0, 2, 1, 3, 4).reshape(-1, 768)


def size_text(w, h):
    return "%d x %d -> %d" % (w, h, w * h // 2304)


def picture_cases():
    """(name, width, height, budget)"""
    for w, h in ((224, 224), (640, 480), (768, 768), (912, 672), (1000, 1000), (1920, 1080), (1080, 2400), (4000, 3000)):
        yield w, h, 280
    for w, h in ((1, 1), (16, 16), (100, 40), (400, 20), (10, 3000), (12000, 12), (3000, 700)):
        yield w, h, 280
    for budget in (70, 140, 560, 1120):
        yield 1920, 1080, budget


def drawn(w, h):
    """A picture with edges and gradients, from integers."""
    from PIL import Image
    y, x, c = np.mgrid[0:h, 0:w, 0:3]
    a = (x * 255 // max(1, w - 1) * (c == 0) + y * 255 // max(1, h - 1) * (c == 1) + ((x // 7 + y // 5) % 2 * 255) * (c == 2))
    return Image.fromarray(a.astype(np.uint8))


def differences(a, b):
    """Largest and mean difference of two arrays of patches in levels of 255; None when their numbers differ."""
    if a is None or b is None or a.shape != b.shape:
        return None
    d = np.abs(a.astype(np.float64) - b) * 255
    return d.max(), d.mean()


def pictures(program):
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
    processor = Gemma4ImageProcessorPil()

    def reference(image, budget=280):
        out = processor(image, max_soft_tokens=budget, return_tensors="np", input_data_format="channels_last" if image.mode == "RGB" else None)
        n = int(out["num_soft_tokens_per_image"][0]) * 9
        w, h = (int(v) + 1 for v in out["image_position_ids"][0][:n].max(0))
        return out["pixel_values"][0][:n], (16 * w, 16 * h)

    lines = [
        "## Pictures", "",
        "Size a picture is scaled to and the soft tokens it becomes, `width x height -> tokens`. \"Off by\" is the largest",
        "difference of any value of any patch from the reference, in levels of 255. llama.cpp has no budget of its own: it keeps a",
        "picture's size, rounded to multiples of 48, if that makes 70 to 1120 tokens; the last column is what it makes of the",
        "budget given as both limits (`--image-min-tokens N --image-max-tokens N`). Where a ratio does not fit, it adds black",
        "bars: `(w x h)` is the picture inside.", "",
        "| picture | budget | transformers | gemma4.c | off by | llama.cpp | llama.cpp, limits = budget |", "|---|---|---|---|---|---|---|"]
    for w, h, budget in picture_cases():
        image = drawn(w, h)
        want, size = reference(image, budget)
        with tempfile.TemporaryDirectory() as tmp:
            path = os.path.join(tmp, "case.png")
            image.save(path)
            ours = run(program, "patches", "-f", path, "--image-tokens", budget)
        off = differences(ours, want)
        texts = []
        for limits in ((70, 1120), (budget, budget)):
            pixels, inner = llama_pixels(image, *limits)
            full = (pixels.shape[1], pixels.shape[0])
            texts.append(size_text(*full) + ("" if inner == full else " (%d x %d)" % inner))
        lines.append("| %d x %d | %d | %s | %s | %s | %s | %s |" % (
            w, h, budget, size_text(*size), "%d tokens" % (len(ours) // 9) if ours is not None else "failed",
            "0" if off and off[0] == 0 else "%.2g" % off[0] if off else "all", *texts))

    lines += [
        "", "What becomes of files that are more than RGB, all 96 x 96 at budget 70 (384 x 384, 64 tokens): the largest difference",
        "of patches, in levels. transformers differs from itself: an opened picture (O) is put on white (`convert_to_rgb`), a",
        "path or URL (P) goes through `load_image`, which drops alpha and applies EXIF. gemma4.c puts on white and turns",
        "upright. llama.cpp decodes with stb_image, three channels asked for: alpha is dropped, EXIF is not read. (Its decoder",
        "is not run here: its column is the rule on the pixels of Pillow, at the same size.)", "",
        "| file | transformers P from O | gemma4.c from O | gemma4.c from P | llama.cpp's rule from O |", "|---|---|---|---|---|"]
    for name, save, llama in file_cases():
        from PIL import Image
        from transformers.image_utils import load_image
        with tempfile.TemporaryDirectory() as tmp:
            path = os.path.join(tmp, name.split()[-1])
            save(path)
            opened = Image.open(path)
            opened.load()
            want, _ = reference(opened, 70)
            loaded, _ = reference(load_image(path), 70)
            ours = run(program, "patches", "-f", path, "--image-tokens", 70)
            theirs = patches_of(np.asarray(llama(path).resize((384, 384), Image.BICUBIC)))
        pairs = ((loaded, want), (ours, want), (ours, loaded), (theirs, want))
        texts = ["%.3g" % d[0] if d else "other size" for d in (differences(*pair) for pair in pairs)]
        lines.append("| %s | %s | %s | %s | %s |" % (" ".join(name.split()[:-1]), *texts))
    return lines + [
        "", "* The 16-bit grey file is where gemma4.c differs on purpose: the high byte of each sample, not Pillow's saturation, under which almost",
        "  every 16-bit picture is white.",
        "* EXIF: gemma4.c gives the upright picture that transformers gives for a path; the opened one lies on its side, and",
        "  so does llama.cpp's.",
        "* Pillow 13.0 begins with the vertical pass when a picture loses more than twice as many rows as columns (1080 x",
        "  2400 above); up to 12 it always began with the horizontal one. gemma4.c follows 13.0; against Pillow 12 such",
        "  pictures differ by up to some 15 levels.", ""]


def file_cases():
    """(description and file name, writer, what llama.cpp decodes)"""
    from PIL import Image
    base = drawn(96, 96)
    alpha = base.copy()
    alpha.putalpha(Image.fromarray((np.mgrid[0:96, 0:96][1] * 255 // 95).astype(np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = (np.mgrid[0:96, 0:96][0] * 690).astype(np.uint16)

    def dropped(path):
        return Image.fromarray(np.asarray(Image.open(path).convert("RGBA"))[..., :3].copy())

    def plain(path):
        return Image.open(path).convert("RGB")

    yield "RGB a.png", base.save, plain
    yield "RGB with alpha a.png", alpha.save, dropped
    yield "grey with alpha a.png", alpha.convert("LA").save, dropped
    yield "palette, one colour transparent a.png", lambda p: base.quantize(16).save(p, transparency=3), dropped
    yield "grey a.png", base.convert("L").save, plain
    yield "16-bit grey a.png", lambda p: Image.fromarray(wide).save(p), lambda p: Image.fromarray((wide >> 8).astype(np.uint8)).convert("RGB")
    yield "JPEG 4:2:0 a.jpg", lambda p: base.save(p, quality=90), plain
    yield "JPEG, EXIF orientation 6 a.jpg", lambda p: base.save(p, quality=90, exif=exif), plain
    yield "JPEG, CMYK a.jpg", lambda p: base.convert("CMYK").save(p, quality=90), plain
    yield "progressive JPEG 4:4:4 a.jpg", lambda p: base.save(p, quality=90, progressive=True, subsampling=0), plain


# ---- Video ---------------------------------------------------------------------------------------------


class Image(ctypes.Structure):
    _fields_ = [("pixels", ctypes.c_void_p), ("width", ctypes.c_int), ("height", ctypes.c_int), ("stride", ctypes.c_size_t), ("max_tokens", ctypes.c_int),
                ("reserved", ctypes.c_uint64 * 2)]


class Video(ctypes.Structure):
    _fields_ = [("frames", ctypes.POINTER(Image)), ("seconds", ctypes.POINTER(ctypes.c_double)), ("n_frames", ctypes.c_int), ("sound", ctypes.c_void_p),
                ("reserved", ctypes.c_uint64 * 2)]


class MediaOptions(ctypes.Structure):
    _fields_ = [("allocator", ctypes.c_void_p), ("ffmpeg", ctypes.c_char_p), ("max_pixels", ctypes.c_uint64), ("max_samples", ctypes.c_uint64),
                ("max_file_bytes", ctypes.c_uint64), ("max_frames", ctypes.c_int), ("n_frames", ctypes.c_int), ("fps", ctypes.c_double),
                ("want_sound", ctypes.c_int), ("cancel", ctypes.c_void_p), ("seconds", ctypes.c_double), ("limits_reserved", ctypes.c_uint64 * 2),
                ("reserved", ctypes.c_uint64 * 4)]


def sampled(library, total, fps, wanted):
    """Frames that g4_video_decode keeps of a y4m video of 1 x 1 pixels: their numbers, from the times it gives them."""
    data = b"YUV4MPEG2 W1 H1 F%d:1000 Cmono\n" % round(fps * 1000) + b"FRAME\n\x80" * total
    video, options, error = Video(), MediaOptions(max_frames=100000, fps=wanted or 0.0), ctypes.create_string_buffer(512)
    if library.g4_video_decode(ctypes.byref(video), data, ctypes.c_size_t(len(data)), ctypes.byref(options), error):
        return error.raw[4:].split(b"\0")[0].decode()
    frames = [round(video.seconds[i] * fps) for i in range(video.n_frames)]
    library.g4_video_free(ctypes.byref(video), ctypes.byref(options))
    return frames


def frames_text(frames):
    if isinstance(frames, str):
        return frames
    return "%d: %s" % (len(frames), ", ".join(map(str, frames[:4])) + (", ... %d" % frames[-1] if len(frames) > 4 else ""))


def videos(program):
    from transformers.video_utils import VideoMetadata, default_sample_indices_fn
    root = os.path.join(HERE, "..")
    subprocess.run(["make", "-s", "-C", root, "build/libgemma4.so"], check=True)
    library = ctypes.CDLL(os.path.join(root, "build", "libgemma4.so"))
    lines = [
        "## Video", "",
        "Frames that are shown to the model, `number: which`. llama.cpp resamples to 4 frames a second by ffmpeg's `fps` filter,",
        "whatever the length, and writes a time every 5 s; the others write a time before every frame.", "",
        "| video | asked for | transformers | gemma4.c | llama.cpp |", "|---|---|---|---|---|"]
    for total, fps, wanted in ((1, 25, None), (20, 25, None), (32, 25, None), (33, 25, None), (150, 30, None), (1000, 29.97, None),
                               (18000, 30, None), (150, 30, 1.0), (150, 30, 0.1), (1000, 29.97, 2.0)):
        meta = VideoMetadata(total_num_frames=total, fps=fps)
        try:
            options = dict(fps=wanted) if wanted else dict(num_frames=32)
            theirs = frames_text([int(i) for i in default_sample_indices_fn(meta, **options)])
        except ValueError as e:
            theirs = "error: fewer than 32 frames" if "exceeds" in str(e) else "error"
        lines.append("| %d frames at %g/s | %s | %s | %s | %d |" % (
            total, fps, "%g a second" % wanted if wanted else "32", theirs, frames_text(sampled(library, total, fps, wanted)),
            max(1, round(total / fps * 4))))
    return lines + [""]


# ---- The page ----------------------------------------------------------------------------------------

SECTIONS = [pictures, sounds, videos]


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
