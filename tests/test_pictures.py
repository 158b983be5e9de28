#!/usr/bin/env python3
"""Every picture of a folder as Pillow opens it and as the library does, pixel by pixel.

    python3 tests/test_pictures.py [--library build/libgemma4.so] [--all] FOLDER...

The reference is Pillow's first frame, upright (exif_transpose), over white, as RGB. Formats are counted as Pillow names
them: files that it opens, that we open, that are equal, the worst difference of a sample and the largest mean of a file.
A file that differs or is refused gets a line, with --all each file. Subsampled colour may be off by 1 on average and by
16 anywhere. REASONS is the list of what is known to differ. Pillow's own test pictures (Tests/images of its source
package) hold most kinds there are. The last line is "N passed, N failed, N skipped": skipped is what has a reason.
"""

import argparse
import collections
import ctypes
import os
import time
import warnings

import numpy as np
from PIL import Image, ImageOps

SUBSAMPLED = ("WEBP", "AVIF", "HEIF")
MEAN, WORST = 1, 16  # largest differences of their files

# (format, mode as Pillow names them, what the line of our failure holds, reason); None and "" match all.
CLIPPED = "Pillow clips grey of more than 8 bits; here its high byte counts"
REASONS = [
    (None, "I", "off by", CLIPPED),
    (None, "I;16", "off by", CLIPPED),
    (None, "I;16B", "off by", CLIPPED),
    (None, "F", "off by", CLIPPED),
    (None, None, "ffmpeg cannot read it", "the installed ffmpeg does not read it"),
    (None, None, "ffmpeg found no picture", "the installed ffmpeg does not read it"),
    (None, None, "there is no picture in it", "the installed ffmpeg does not read it"),
    ("TIFF", "LAB", "off by", "Pillow's tables of CIELAB are coarse"),
    ("TIFF", "RGB", "off by 1 at most", "libtiff rounds YCbCr of old JPEG otherwise"),
    (None, None, "it begins with", "a kind that is not read"),
    ("CUR", "LA", "off by", "Pillow reads the mask of a grey cursor with 8 bits a pixel, where a file has one"),
    ("JPEG2000", None, "JPEG 2000: colours of", "ffmpeg shows CMYK and YCbCr of JPEG 2000 as other colours"),
    ("JPEG2000", None, "off by 1 at most", "ffmpeg and OpenJPEG round lossy wavelets otherwise"),
    ("FLI", "P", "off by 3 at most", "ffmpeg widens palettes of 6 bits to 255, Pillow to 252"),
    ("PCD", "RGB", "off by", "ffmpeg's colours of PhotoCD are darker"),
]


class GImage(ctypes.Structure):
    _fields_ = [
        ("pixels", ctypes.POINTER(ctypes.c_uint8)),
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("stride", ctypes.c_size_t),
        ("max_tokens", ctypes.c_int),
        ("reserved", ctypes.c_uint64 * 2),
    ]


class GError(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("message", ctypes.c_char * 256)]


def over_white(image):
    rgba = ImageOps.exif_transpose(image).convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255))
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))


def reference(path):
    """(format, mode, pixels) by Pillow, or None when it does not open the file."""
    try:
        with Image.open(path) as image:
            image.load()
            return image.format, image.mode, over_white(image)
    except Exception:  # Pillow's readers raise almost anything
        return None


def ours(library, path):
    """Pixels, or the message of the failure."""
    image, error = GImage(), GError()
    if library.g4_image_load(ctypes.byref(image), os.fsencode(path), None, ctypes.byref(error)):
        return error.message.decode("utf-8", "replace")
    pixels = np.ctypeslib.as_array(image.pixels, (image.height, image.width, 3)).copy()
    library.g4_image_free(ctypes.byref(image), None)
    return pixels


def compare(kind, ours, want):
    """(is it right, what to say, mean, worst)"""
    if isinstance(ours, str):
        return False, "refused: " + ours, 0, 0
    if ours.shape != want.shape:
        return False, "%d x %d pixels, Pillow has %d x %d" % (ours.shape[1::-1] + want.shape[1::-1]), 0, 0
    off = np.abs(ours.astype(np.int16) - want)
    mean, worst = float(off.mean()), int(off.max())
    right = worst == 0 or (kind in SUBSAMPLED and mean <= MEAN and worst <= WORST)
    return right, "off by %d at most, %.3f on average, in %d pixels" % (worst, mean, off.any(-1).sum()), mean, worst


def files_of(folders):
    for folder in folders:
        if os.path.isfile(folder):
            yield folder
        for at, _, names in sorted(os.walk(folder)):
            yield from (os.path.join(at, name) for name in sorted(names))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--library", default="build/libgemma4.so")
    parser.add_argument("--all", action="store_true", help="a line for each file")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    library = ctypes.CDLL(os.path.abspath(args.library))
    library.g4_image_load.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p]
    rows = collections.defaultdict(lambda: dict(files=0, opened=0, equal=0, right=0, known=0, mean=0.0, worst=0))
    unread = 0
    for path in files_of(args.folders):
        known = reference(path)
        if not known:
            unread += 1
            continue
        kind, mode, want = known
        start = time.perf_counter()
        got = ours(library, path)
        seconds = time.perf_counter() - start
        right, said, mean, worst = compare(kind, got, want)
        reasons = [r for k, m, s, r in REASONS if k in (None, kind) and m in (None, mode) and s in said]
        row = rows[kind]
        row["files"] += 1
        row["opened"] += not isinstance(got, str)
        row["equal"] += not isinstance(got, str) and got.shape == want.shape and worst == 0
        row["right"] += right
        row["known"] += not right and bool(reasons)
        row["mean"] = max(row["mean"], mean)
        row["worst"] = max(row["worst"], worst)
        if args.all or not right:
            said = "right" if right else said + (" (%s)" % reasons[0] if reasons else "")
            print("%s %s %s: %s" % (kind, mode, path, said) + (", %.2f s" % seconds if args.all else ""), flush=True)
    print("%-10s %6s %6s %6s %6s %6s %6s %6s" % ("format", "files", "opened", "equal", "right", "known", "mean", "worst"))
    for kind, r in sorted(rows.items()):
        print("%-10s" % kind + " %(files)6d %(opened)6d %(equal)6d %(right)6d %(known)6d %(mean)6.3f %(worst)6d" % r)
    passed, files, skipped = (sum(r[k] for r in rows.values()) for k in ("right", "files", "known"))
    print("%d files that Pillow does not open" % unread)
    print("%d passed, %d failed, %d skipped" % (passed, files - passed - skipped, skipped))
    return passed + skipped < files


if __name__ == "__main__":
    raise SystemExit(main())
