#!/usr/bin/env python3
"""Golden data of media/: small PNG, JPEG and Netpbm files with the pixels Pillow makes of them, and patches of the reference.

    python3 tests/make_pictures_data.py [OUT]      (OUT: tests/data/pictures.bin)

Needs Pillow 13 (12 and older resize tall pictures in another order), numpy, transformers, libjpeg-turbo's cjpeg for the sampling factors Pillow cannot write, and libwebp.so.7 for its encoder's options that Pillow does not have. Pixels and patches are kept
as checksums. PNG files come from a small encoder here, because Pillow writes neither interlaced nor most odd ones; their
pixels are computed from the samples by the PNG standard and must equal Pillow's, but for the cases in `differs`.

Format, little-endian: "G4PICS1\\n", then records: u32 kind (1 picture, 2 patches), width, height, crc32, adler32, length of the
name, length of the data; name; data. Kind 3 is a picture that needs the ffmpeg program. Kind 4 is one whose samples may differ a little: how much stands in the place of crc32, the
RGB pixels behind the file. A picture's data is the file and its sums are over RGB; for patches, data is
i32 pattern, budget, n, grid_w, grid_h, then 8 floats from the middle, and the sums are over pixels (float32), then positions (int32).
"""
import ctypes
import io
import lzma
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
from PIL import Image, ImageOps
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

HERE = os.path.dirname(os.path.abspath(__file__))
rng = np.random.default_rng(4)
records = []
names = set()


def add(kind, name, w, h, sums, data):
    assert name not in names, name
    names.add(name)
    label = name.encode()
    records.append(struct.pack("<7I", kind, w, h, sums[0], sums[1], len(label), len(data)) + label + data)


def sums_of(raw):
    return zlib.crc32(raw), zlib.adler32(raw)


def add_picture(name, data, rgb):
    assert rgb.dtype == np.uint8 and rgb.shape[2] == 3
    add(1, name, rgb.shape[1], rgb.shape[0], sums_of(np.ascontiguousarray(rgb).tobytes()), data)


def pillow(data):
    """What the reference sees: upright, over white (image_transforms.convert_to_rgb)."""
    im = Image.open(io.BytesIO(data))
    im.load()
    im = ImageOps.exif_transpose(im)
    rgba = im.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255))
    return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))


def noise(h, w, channels, top=256):
    """Half noise, half smooth, so that filters and matches have something to do."""
    a = rng.integers(0, top, (h, w, channels)).astype(np.int64)
    ramp = (np.arange(w)[None, :, None] + 2 * np.arange(h)[:, None, None]) * top // (3 * max(w, h)) % top
    return np.where(rng.random((h, w, 1)) < 0.3, a, ramp)


# ---- PNG ---------------------------------------------------------------------------------------------


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def pack_rows(samples, depth):
    h, w, c = samples.shape
    rows = []
    for y in range(h):
        flat = samples[y].reshape(-1)
        if depth == 16:
            rows.append(flat.astype(">u2").tobytes())
        elif depth == 8:
            rows.append(flat.astype(np.uint8).tobytes())
        else:
            bits = ((flat[:, None] >> np.arange(depth - 1, -1, -1)) & 1).reshape(-1).astype(np.uint8)
            rows.append(np.packbits(bits).tobytes())
    return rows


def filtered(rows, bpp):
    out, up = b"", None
    for row in rows:
        kind, n = int(rng.integers(0, 5)), len(row)
        coded = bytearray(n)
        for i in range(n):
            a = row[i - bpp] if i >= bpp else 0
            b = up[i] if up else 0
            c = up[i - bpp] if up and i >= bpp else 0
            p = a + b - c
            pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
            paeth = a if pa <= pb and pa <= pc else b if pb <= pc else c
            coded[i] = (row[i] - [0, a, b, (a + b) // 2, paeth][kind]) & 255
        out += bytes([kind]) + bytes(coded)
        up = row
    return out


def png(samples, colour, depth, interlace=0, before=b"", after=b"", level=9, strategy=0, pieces=1):
    h, w, c = samples.shape
    bpp = max(1, depth * c // 8)
    if interlace:
        raw = b""
        for x0, y0, dx, dy in ADAM7:
            part = samples[y0::dy, x0::dx]
            if part.shape[0] and part.shape[1]:
                raw += filtered(pack_rows(part, depth), bpp)
    else:
        raw = filtered(pack_rows(samples, depth), bpp)
    z = zlib.compressobj(level, zlib.DEFLATED, 15, 8, strategy)
    data = z.compress(raw) + z.flush()
    cuts = sorted(int(v) for v in rng.integers(0, len(data) + 1, pieces - 1))
    parts = [data[a:b] for a, b in zip([0] + cuts, cuts + [len(data)])]
    head = struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + b"".join(chunk(b"IDAT", p) for p in parts) + after + chunk(b"IEND", b"")


def over_white(rgb, alpha):
    t = (rgb.astype(np.int64) * alpha + 255 * (255 - alpha) + 128) << 7
    return ((((t >> 8) + t) >> 8) >> 7).astype(np.uint8)


def png_pixels(samples, colour, depth, palette=None, trns=None):
    """RGB by the standard; 16-bit samples by their high byte."""
    if colour == 3:
        colours = np.zeros((256, 3), np.int64)
        colours[: len(palette)] = palette
        alphas = np.full(256, 255, np.int64)
        if trns is not None:
            alphas[: len(trns)] = trns
        return over_white(colours[samples[..., 0]], alphas[samples[..., :1]])
    n = 1 if colour in (0, 4) else 3
    wide = samples >> 8 if depth == 16 else samples * (255 // (2**depth - 1))
    alpha = np.full(samples.shape[:2] + (1,), 255, np.int64)
    if colour in (4, 6):
        alpha = wide[..., n:]
    if trns is not None:
        alpha = np.where((samples[..., :n] == np.array(trns)).all(-1, keepdims=True), 0, alpha)
    rgb = wide[..., :n] if n == 3 else np.repeat(wide[..., :1], 3, -1)
    return over_white(rgb, alpha)


def differs(colour, depth, trns):
    """Where Pillow does not follow the standard: it saturates 16-bit grey, compares a transparent grey of 2 and 4 bits with the
    sample after widening it, and a 16-bit transparent colour with the high bytes."""
    return (colour == 0 and depth == 16) or (trns is not None and colour in (0, 2) and depth in (2, 4, 16))


def png_case(name, colour, depth, w, h, **options):
    use_trns = options.pop("trns", False)
    samples = noise(h, w, CHANNELS[colour], 2**depth)
    before, palette, trns = b"", None, None
    if colour == 3:
        palette = rng.integers(0, 256, (min(256, 2**depth), 3)).astype(np.int64)
        if options.pop("short", False):
            palette = palette[: max(1, len(palette) // 2)]
        before += chunk(b"PLTE", palette.astype(np.uint8).tobytes())
        if use_trns:
            trns = rng.integers(0, 256, (len(palette) + 1) // 2).astype(np.int64)
            before += chunk(b"tRNS", trns.astype(np.uint8).tobytes())
    elif use_trns:
        trns = [int(v) for v in samples[h // 2, w // 2]]
        before += chunk(b"tRNS", struct.pack(">%dH" % len(trns), *trns))
    before += options.pop("before", b"")
    data = png(samples, colour, depth, before=before, **options)
    rgb = png_pixels(samples, colour, depth, palette, trns)
    if not differs(colour, depth, trns):
        assert (pillow(data) == rgb).all(), name
    add_picture(name, data, rgb)


def exif(orientation, big=False):
    e = ">" if big else "<"
    entries = [(0x010E, 2, 4, b"abc\0"), (0x0112, 3, 1, struct.pack(e + "HH", orientation, 0))]
    body = struct.pack(e + "H", len(entries)) + b"".join(struct.pack(e + "HHI", t, k, n) + v for t, k, n, v in entries)
    return (b"MM" if big else b"II") + struct.pack(e + "HI", 42, 8) + body + struct.pack(e + "I", 0)


def make_png():
    for colour, depths in ((0, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (1, 2, 4, 8)), (4, (8, 16)), (6, (8, 16))):
        for depth in depths:
            for interlace in (0, 1):
                w, h = (int(v) for v in rng.integers(9, 30, 2))
                name = "png-%d-%d-%d" % (colour, depth, interlace)
                png_case(name + ".png", colour, depth, w, h, interlace=interlace, pieces=int(rng.integers(1, 5)))
                if colour in (0, 2, 3):
                    png_case(name + "-trns.png", colour, depth, w, h, interlace=interlace, trns=True)
    for w, h in ((1, 1), (1, 9), (2, 2), (3, 5), (4, 1), (5, 5), (7, 8), (8, 3), (9, 9)):
        png_case("png-adam7-%dx%d.png" % (w, h), 2, 8, w, h, interlace=1)
        png_case("png-adam7-1bit-%dx%d.png" % (w, h), 0, 1, w, h, interlace=1)
    for level, strategy in ((0, 0), (1, 0), (9, 1), (9, 2), (9, 3), (9, 4)):
        png_case("png-deflate-%d-%d.png" % (level, strategy), 6, 8, 23, 19, level=level, strategy=strategy, pieces=6)
    png_case("png-short-palette.png", 3, 4, 20, 9, short=True)
    png_case("png-runs.png", 3, 1, 400, 100)
    extra = chunk(b"gAMA", struct.pack(">I", 45455)) + chunk(b"tEXt", b"Comment\0hello") + chunk(b"PLTE", bytes(range(30)))
    png_case("png-ancillary.png", 2, 8, 12, 11, before=extra)
    for orientation in range(1, 9):
        samples = noise(5, 7, 3)
        data = png(samples, 2, 8, before=chunk(b"eXIf", exif(orientation, orientation % 2 == 0)))
        add_picture("png-exif-%d.png" % orientation, data, pillow(data))
    late = png(noise(5, 7, 3), 2, 8, after=chunk(b"eXIf", exif(6)))
    add_picture("png-exif-late.png", late, pillow(late))


# ---- JPEG ---------------------------------------------------------------------------------------------


def picture(mode="RGB"):
    w, h = (int(v) for v in rng.integers(1, 44, 2))
    a = noise(h, w, 4).astype(np.uint8)
    return Image.fromarray(a, "RGBA").convert(mode)


def add_jpeg(name, data):
    add_picture(name, data, pillow(data))


def save(im, **options):
    f = io.BytesIO()
    im.save(f, "JPEG", **options)
    return f.getvalue()


def cjpeg(im, *options):
    f = io.BytesIO()
    im.save(f, "PPM")
    return subprocess.run(["cjpeg", *options], input=f.getvalue(), stdout=subprocess.PIPE, check=True).stdout


def make_jpeg():
    for sub in (0, 1, 2):
        for progressive in (False, True):
            for i, quality in enumerate((8, 50, 75, 92)):
                options = dict(quality=quality, subsampling=sub, progressive=progressive)
                if i == 1:
                    options.update(restart_marker_blocks=3)
                if i == 2:
                    options.update(restart_marker_rows=1, optimize=True)
                add_jpeg("jpeg-%d-%d-%d.jpg" % (sub, progressive, quality), save(picture(), **options))
    for progressive in (False, True):
        p = "-%d.jpg" % progressive
        add_jpeg("jpeg-grey" + p, save(picture("L"), quality=80, progressive=progressive))
        add_jpeg("jpeg-rgb" + p, save(picture(), quality=80, progressive=progressive, keep_rgb=True))
        for sub in (0, 2):
            data = bytearray(save(picture("CMYK"), quality=85, progressive=progressive, subsampling=sub))
            add_jpeg("jpeg-cmyk-%d%s" % (sub, p), bytes(data))
            data[data.index(b"Adobe") + 11] = 2  # the same numbers read as YCCK
            add_jpeg("jpeg-ycck-%d%s" % (sub, p), bytes(data))
    for factors in ("1x1", "2x1", "1x2", "2x2", "4x1", "1x4", "4x2", "3x1", "1x1,1x2,1x2", "2x2,1x2,1x2", "2x2,2x1,1x2", "2x2,1x1,2x2"):
        for i, more in enumerate(((), ("-progressive",), ("-restart", "1"))):
            data = cjpeg(picture(), "-quality", "70", "-sample", factors, *more)
            add_jpeg("jpeg-sample-%s-%d.jpg" % (factors, i), data)
    for w in (1, 2, 3, 4, 5, 15, 16, 17):  # fancy upsampling starts at three chroma columns
        for factors in ("2x1", "1x2", "2x2"):
            im = Image.fromarray(noise(18 - w, w, 3).astype(np.uint8))
            add_jpeg("jpeg-narrow-%d-%s.jpg" % (w, factors), cjpeg(im, "-quality", "90", "-sample", factors))
    for orientation in range(1, 9):
        im = Image.fromarray(noise(9, 14, 3).astype(np.uint8))
        add_jpeg("jpeg-exif-%d.jpg" % orientation, save(im, quality=90, exif=b"Exif\0\0" + exif(orientation, orientation % 2 == 1)))


# ---- Netpbm --------------------------------------------------------------------------------------------


def make_pnm():
    for mode, kind in (("1", "pbm"), ("L", "pgm"), ("RGB", "ppm")):
        f = io.BytesIO()
        picture(mode).save(f, "PPM")
        add_picture("raw." + kind, f.getvalue(), pillow(f.getvalue()))
    for maxval in (1, 2, 6, 100, 254, 255, 1000, 65535):
        a = noise(6, 9, 3, maxval + 1)
        raw = a.astype(">u2" if maxval > 255 else np.uint8).tobytes()
        data = b"P6 # a comment\n9\t6\r\n%d\n" % maxval + raw
        add_picture("ppm-%d.ppm" % maxval, data, pillow(data))
        text = b"P3\n9 6\n#c\n%d\n" % maxval + b" ".join(b"%d" % v for v in a.reshape(-1)) + b"\n"
        add_picture("plain-%d.ppm" % maxval, text, pillow(text))
    bits = noise(5, 7, 1, 2)[..., 0]
    data = b"P1\n7 5\n" + b"\n".join(b"".join(b"%d" % v for v in row) for row in bits) + b"\n"
    add_picture("plain.pbm", data, pillow(data))
    rgba = noise(6, 5, 4)
    data = b"P7\nWIDTH 5\nHEIGHT 6\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n" + rgba.astype(np.uint8).tobytes()
    add_picture("alpha.pam", data, over_white(rgba[..., :3], rgba[..., 3:]))


# ---- Files that are not whole, and that say how to turn them ------------------------------------------------


def segments(jpeg):
    """(code, bytes) of each segment up to the scan, and what follows."""
    at, out = 2, []
    while jpeg[at + 1] != 0xDA:
        n = 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        out.append((jpeg[at + 1], jpeg[at : at + n]))
        at += n
    return out, jpeg[at:]


def without(jpeg, code):
    parts, rest = segments(jpeg)
    return jpeg[:2] + b"".join(s for c, s in parts if c != code) + rest


def make_broken_jpeg(smooth):
    for progressive in (False, True):
        name = "broken-%d-" % progressive
        data = save(smooth, quality=60, progressive=progressive, restart_marker_blocks=2)
        at = data.index(b"\xff\xd1", data.index(b"\xff\xda"))
        add_jpeg(name + "no-restart.jpg", data[:at] + data[at + 2 :])
        for number in (0, 2, 3, 5, 7):
            add_jpeg(name + "restart-%d.jpg" % number, data[: at + 1] + bytes([0xD0 + number]) + data[at + 2 :])
        if not progressive:  # libjpeg smooths pictures whose last scans are missing: that is not done here
            add_jpeg(name + "end-inside.jpg", data[: at + 1] + b"\xd9" + data[at + 2 :])
        add_jpeg(name + "garbage-before-restart.jpg", data[:at] + b"\xff\x00garbage" + data[at:])
        last = data.rindex(b"\xff\xda")  # in the last scan
        for place in (20, 33, 41, 55):
            damaged = bytearray(data)
            damaged[last + place] ^= 0x10
            try:
                add_jpeg(name + "damaged-%d.jpg" % place, bytes(damaged))
            except OSError:
                pass  # Pillow does not open all of them
    plain = save(smooth, quality=60)
    add_jpeg("broken-no-tables.jpg", without(plain, 0xC4))
    whole = zlib.crc32(pillow(plain).tobytes()), zlib.adler32(pillow(plain).tobytes())
    add(1, "broken-no-end.jpg", smooth.width, smooth.height, whole, plain[:-2])  # Pillow may want one byte more
    add_jpeg("broken-no-end-bytes.jpg", plain[:-2] + bytes(8))
    for xmp in (b'<x tiff:Orientation="6">', b"<tiff:Orientation>5</tiff:Orientation>"):
        segment = b"http://ns.adobe.com/xap/1.0/\0" + xmp
        data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]
        add_jpeg("turn-xmp-%d.jpg" % len(xmp), data)
        add_jpeg("turn-exif-xmp-%d.jpg" % len(xmp), save(smooth, exif=b"Exif\0\0" + exif(3))[:2] + data[2:])


def make_broken_png(samples):
    data = png(samples, 2, 8, pieces=3)
    end = data.index(b"IEND") - 4
    add_picture("broken-no-iend.png", data[:end], pillow(data))
    add_picture("broken-no-checksum.png", data[: end - 4], pillow(data))
    add_picture("broken-no-adler.png", data[: end - 8], pillow(data[: end - 8]))
    add_picture("broken-garbage.png", data[:end] + b"\0\1\2\3garbage behind the pixels", pillow(data))
    at = data.index(b"IDAT")
    damaged = bytearray(data)
    damaged[at + 4 + int.from_bytes(data[at - 4 : at], "big")] ^= 1
    add_picture("broken-idat-crc.png", bytes(damaged), pillow(bytes(damaged)))
    add_picture("broken-critical.png", data[:33] + chunk(b"ABCD", b"?") + data[33:], pillow(data))
    h, w, c = samples.shape
    raw = filtered(pack_rows(samples, 8), c)
    extra = data[:33] + chunk(b"IDAT", zlib.compress(raw + b"more rows than there are")) + chunk(b"IEND", b"")
    add_picture("broken-extra-idat.png", extra, pillow(extra))
    xmp = '<x tiff:Orientation="8">'.encode()
    profile = b"\nexif\n%8d\n" % 40 + (b"Exif\0\0" + exif(6)).hex().encode() + b"\n"
    for name, text in (
        ("xmp", chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)),
        ("xmp-packed", chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp))),
        ("profile", chunk(b"tEXt", b"Raw profile type exif\0" + profile)),
        ("profile-packed", chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile))),
    ):
        turned = data[:33] + text + data[33:]
        assert pillow(turned).shape == (w, h, 3)
        add_picture("turn-%s.png" % name, turned, pillow(turned))


def bmp(head, size, bits, compression, pixels, palette=b"", masks=b"", colours=0):
    w, h = size
    if head == 12:
        info = struct.pack("<IHHHH", 12, w, h, 1, bits)
    else:
        info = struct.pack("<IiiHHIIiiII", head, w, h, 1, bits, compression, len(pixels), 0, 0, colours, 0)
        if head > 40:
            info, masks = (info + masks).ljust(head, b"\0"), b""
    start = 14 + len(info) + len(masks) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + info + masks + palette + pixels


def make_bmp():
    w, h = 21, 9

    def mask(*m):
        return struct.pack("<%dI" % len(m), *m)

    full = (0xFF0000, 0xFF00, 0xFF)
    cases = [(12, 1, 0, b""), (12, 8, 0, b""), (12, 24, 0, b""), (40, 1, 0, b""), (40, 4, 0, b""), (40, 8, 0, b""), (40, 24, 0, b"")]
    cases += [(40, 16, 0, b""), (40, 16, 3, mask(0xF800, 0x7E0, 0x1F)), (40, 32, 0, b""), (40, 32, 3, mask(*full)), (64, 8, 0, b"")]
    cases += [(124, 32, 3, mask(*full, 0xFF << 24)), (108, 32, 3, mask(0xFF << 24, 0xFF0000, 0xFF00, 0xFF)), (56, 32, 3, mask(0xFF << 24, 0xFF00, 0xFF, 0))]
    for head, bits, compression, masks in cases:
        for flip in (1, -1) if head > 12 else (1,):
            pixels = rng.integers(0, 256, ((w * bits + 31) // 32 * 4 * h), np.uint8).tobytes()
            n = 1 << bits if bits <= 8 else 0
            palette = rng.integers(0, 256, (n, 3 if head == 12 else 4), np.uint8).tobytes()
            data = bmp(head, (w, flip * h), bits, compression, pixels, palette, masks)
            add_picture("%d-%d-%d-%d-%d.bmp" % (head, bits, compression, len(masks), flip), data, pillow(data))
    palette = rng.integers(0, 256, (256, 4), np.uint8).tobytes()
    for bits, compression, runs in (
        (8, 1, b"\5\7\0\3abc\0\0\0\0\2\4\2\1\6\0\4wxyz" + b"\x15\x20\0\0" * 14),
        (8, 1, b"\x40\3\0\0" * 14),
        (4, 2, b"\5\x71\0\5\x12\x34\x50\0\0\0\0\2\4\2" + b"\x15\x2a\0\0" * 14),
    ):
        data = bmp(40, (w, h), bits, compression, runs, palette[: 4 << bits])
        add_picture("runs-%d-%d.bmp" % (bits, len(runs)), data, pillow(data))
    pixels = rng.integers(0, 256, 24 * h, np.uint8).tobytes()
    for name, palette in (("few", palette[:40]), ("grey", bytes(i // 4 if i % 4 < 3 else 0 for i in range(40)))):
        data = bmp(40, (w, h), 8, 0, pixels, palette, colours=10)
        add_picture("palette-%s.bmp" % name, data, pillow(data))
    data = bmp(40, (w, h), 24, 0, bytes(64 * h))
    add_picture("no-padding.bmp", data[:-1], pillow(data[:-1]))


def make_foreign():
    """What ffmpeg unpacks, and is finished here, and WebP, which needs none: each as Pillow has it."""
    im = Image.fromarray(noise(3, 4, 4).astype(np.uint8), "RGBA").resize((31, 22), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[0x0112] = 6

    def add_foreign(name, kind, picture, **options):
        f = io.BytesIO()
        picture.save(f, kind, **options)
        rgb = pillow(f.getvalue())
        add(1 if kind == "WEBP" else 3, name, rgb.shape[1], rgb.shape[0], sums_of(np.ascontiguousarray(rgb).tobytes()), f.getvalue())

    rgb = im.convert("RGB")
    add_foreign("lossy.webp", "WEBP", rgb, quality=60)
    add_foreign("lossy-odd.webp", "WEBP", rgb.crop((0, 0, 30, 21)), quality=60, exif=turned)
    add_foreign("lossy-alpha.webp", "WEBP", im, quality=60)
    add_foreign("lossless-alpha.webp", "WEBP", im, lossless=True)
    add_foreign("xmp.webp", "WEBP", rgb, quality=60, xmp=b'<x tiff:Orientation="8">')
    frames = [rgb.transpose(Image.Transpose.ROTATE_180)]
    add_foreign("animated.webp", "WEBP", im, save_all=True, append_images=frames, lossless=True)
    add_foreign("animated-lossy.webp", "WEBP", rgb, save_all=True, append_images=frames, quality=60)
    for orientation in (1, 3, 5, 8):
        add_foreign("turned-%d.tif" % orientation, "TIFF", rgb, tiffinfo={274: orientation})


# ---- TIFF ----------------------------------------------------------------------------------------------


def packbits(data):
    out, at = b"", 0
    while at < len(data):
        run = 1
        while run < 128 and data[at : at + 1] * (run + 1) == data[at : at + run + 1]:
            run += 1
        n = run if run > 1 else min(5, len(data) - at)
        out += bytes([257 - n]) + data[at : at + 1] if run > 1 else bytes([n - 1]) + data[at : at + n]
        at += n
    return out


XZ = {"dist": 0, "lc": 3, "lp": 0, "pb": 2, "preset": 6}  # how the next streams are packed


def xz(data):
    last = {"id": lzma.FILTER_LZMA2, **{k: v for k, v in XZ.items() if k != "dist"}}
    first = [{"id": lzma.FILTER_DELTA, "dist": XZ["dist"]}] if XZ["dist"] else []
    return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_NONE, filters=first + [last])


def tiff(samples, bits, meaning, order="<", big=False, tile=None, rows=4, planar=1, compression=1, predictor=1, more=()):
    """A file of (h, w, n) samples, in strips of `rows` rows or in tiles (width, height). more: (tag, values of 16 bits)."""
    h, w, n = samples.shape
    tw, th = tile or (w, rows)
    kind = {8: "u1", 16: order + "u2", 32: order + ("f4" if samples.dtype.kind == "f" else "u4")}.get(bits)

    def packed(part):
        if predictor == 2:
            part = np.concatenate([part[:, :1], np.diff(part, axis=1)], 1)
        raw = b"".join(pack_rows(part, bits)) if bits < 8 else part.astype(kind).tobytes()
        if predictor == 3:
            planes = [r.view("u1").reshape(-1, 4).T.reshape(-1) for r in part.astype(">f4").reshape(part.shape[0], -1)]
            raw = b"".join(np.concatenate([p[:1], np.diff(p)]).tobytes() for p in planes)
        return {1: lambda x: x, 8: zlib.compress, 32773: packbits, 34925: xz}[compression](raw)

    pieces = []
    for plane in [samples] if planar == 1 else [samples[..., i : i + 1] for i in range(n)]:
        for y in range(0, h, th):
            for x in range(0, w, tw):
                part = plane[y : y + th, x : x + tw]
                full = (th, tw) if tile else (part.shape[0], w)
                pieces.append(packed(np.pad(part, ((0, full[0] - part.shape[0]), (0, full[1] - part.shape[1]), (0, 0)))))
    data = b"".join(pieces)
    head, offset, count, word = (16, "Q", "Q", 8) if big else (8, "I", "H", 4)
    starts = [head + sum(map(len, pieces[:i])) for i in range(len(pieces))]
    tags = {256: w, 257: h, 258: [bits] * n, 259: compression, 262: meaning, 277: n, 284: planar, 317: predictor}
    tags.update({322: tw, 323: th, 324: starts, 325: list(map(len, pieces))} if tile else {273: starts, 278: th, 279: list(map(len, pieces))})
    tags.update(more)
    end = head + len(data)
    out, tail = struct.pack(order + count, len(tags)), b""
    behind = end + len(out) + len(tags) * (12 if not big else 20) + word
    for tag, values in sorted(tags.items()):
        values = values if isinstance(values, (list, tuple)) else [values]
        wide = max(values) > 65535 or tag in (273, 324)
        raw = struct.pack(order + "%d%s" % (len(values), "I" if wide else "H"), *values)
        if len(raw) > word:
            place, raw = behind + len(tail), raw
            tail += raw
            raw = struct.pack(order + offset, place)
        out += struct.pack(order + "HH" + offset, tag, 4 if wide else 3, len(values)) + raw.ljust(word, b"\0")
    begin = (b"II" if order == "<" else b"MM") + (struct.pack(order + "HHHQ", 43, 8, 0, end) if big else struct.pack(order + "HI", 42, end))
    return begin + data + out + bytes(word) + tail


def make_tiff():
    def add_tiff(name, data, pixels=None):
        add_picture("tiff-%s.tif" % name, data, pillow(data) if pixels is None else pixels)

    rgba = noise(19, 23, 4)
    rgba[..., 3] = np.where(rgba[..., 3] < 80, 0, np.where(rgba[..., 3] > 180, 255, rgba[..., 3]))
    rgb, grey, wide = rgba[..., :3], rgba[..., :1], np.minimum(rgba * 257 + 3, 65535)
    for order in "<>":
        for i, big in enumerate((False, True) if order == "<" else (False,)):
            for k, tile in enumerate((None, (16, 16), (32, 48))):
                for planar in (1, 2):
                    compression = (1, 8, 32773)[len(records) % 3]
                    name = "%s%d-%d-%d" % ("le" if order == "<" else "be", i, k, planar)
                    options = dict(order=order, big=big, tile=tile, planar=planar)
                    add_tiff("rgb-" + name, tiff(rgb, 8, 2, compression=compression, **options))
                    if planar == 1 and k < 2:
                        alpha = pillow(tiff(wide >> 8, 8, 2, **options, more={338: 1}))
                        add_tiff("deep-" + name, tiff(wide, 16, 2, compression=8, **options, more={338: 1}), alpha)
                        add_tiff("difference-" + name, tiff(wide.astype("u2"), 16, 5, compression=8, predictor=2, **options))
    premultiplied = rgba.copy()
    premultiplied[..., :3] = rgb * rgba[..., 3:] // 255
    for name, samples, extra in (("alpha", rgba, 2), ("premultiplied", premultiplied, 1), ("other", rgba, 0)):
        add_tiff(name, tiff(samples, 8, 2, more={338: extra}))
        add_tiff(name + "-planes", tiff(samples, 8, 2, planar=2, compression=8, more={338: extra}))
    colours = {320: [int(v) for v in rng.integers(0, 65536, 768)]}
    for bits in (1, 2, 4, 8):
        palette = {320: colours[320][: 3 << bits]}
        for meaning, more in ((0, {}), (1, {}), (3, palette)):
            for fill in (1, 2):
                if fill == 2 and (meaning == 3 and bits < 8 or meaning == 0 and bits == 8):
                    continue  # Pillow does not open these
                add_tiff("bits-%d-%d-%d" % (bits, meaning, fill), tiff(grey >> (8 - bits), bits, meaning, more={266: fill, **more}))
    floats = (rgba[..., :1] * 1.5 - 40).astype("f4")
    for predictor in (1, 3):
        add_tiff("float-%d" % predictor, tiff(floats, 32, 1, compression=8, predictor=predictor, more={339: 3}))
    add_tiff("cmyk", tiff(rgba, 8, 5, compression=8))
    add_tiff("grey-alpha", tiff(rgba[..., 2:], 8, 1, more={338: 2}))
    high = tiff(wide[..., :1], 16, 1, order=">")
    add_tiff("high", high, np.repeat(wide[..., :1] >> 8, 3, -1).astype(np.uint8))
    turned = tiff(rgb, 8, 2, more={274: 6})
    add_tiff("turned", turned)
    im = Image.fromarray(rgb.astype(np.uint8))
    for mode, options in (
        ("RGB", dict(compression="tiff_lzw")), ("RGB", dict(compression="tiff_lzw", tiffinfo={317: 2})), ("RGB", dict(compression="jpeg")),
        ("L", dict(compression="jpeg")), ("CMYK", dict(compression="jpeg")), ("YCbCr", dict(compression="jpeg")), ("YCbCr", {}), ("1", dict(compression="tiff_lzw")),
        ("I", {}), ("P", dict(compression="tiff_lzw")),
    ):
        f = io.BytesIO()
        im.convert(mode).save(f, "TIFF", **options)
        add_tiff("-".join([mode, *map(str, options.values())]).replace(" ", ""), f.getvalue())


# ---- AVIF and HEIC ---------------------------------------------------------------------------------------


def box(name, *data):
    return struct.pack(">I4s", 8 + sum(map(len, data)), name) + b"".join(data)


def heif(kind, config, tiles, columns, tile, size, properties):
    """A file of one item, or of a grid of them. kind: brand, type of items, name of their configuration."""
    rows, n, grid = len(tiles) // columns, len(tiles), len(tiles) > 1
    items = [(1, b"grid", bytes([0, 0, rows - 1, columns - 1]) + struct.pack(">HH", *size))] if grid else []
    items += [(i + 1 + grid, kind[1], data) for i, data in enumerate(tiles)]
    listed = [box(b"ispe", struct.pack(">III", 0, *tile)), box(kind[2], config), box(b"ispe", struct.pack(">III", 0, *size))]
    listed += [box(b"pixi", b"\0\0\0\0\3\x08\x08\x08")] + properties
    turns = [5 + i for i in range(len(properties))]
    owned = [[3, 4] + turns if t == b"grid" else [1, 2, 4] + ([] if grid else turns) for _, t, _ in items]
    owners = b"".join(struct.pack(">HB", item[0], len(o)) + bytes(o) for item, o in zip(items, owned))
    infos = [box(b"infe", struct.pack(">IHH", 2 << 24, i, 0), t, b"\0") for i, t, _ in items]
    references = box(b"iref", bytes(4), box(b"dimg", struct.pack(">%dH" % (2 + n), 1, n, *range(2, 2 + n)))) if grid else b""

    def head(start):
        places = b""
        for i, _, data in items:
            places += struct.pack(">HHHII", i, 0, 1, start, len(data))
            start += len(data)
        return box(b"ftyp", kind[0], bytes(4), b"mif1") + box(
            b"meta", bytes(4), box(b"hdlr", bytes(8), b"pict", bytes(13)), box(b"pitm", struct.pack(">IH", 0, 1)), box(b"iloc", b"\0\0\0\0\x44\0", struct.pack(">H", len(items)), places),
            box(b"iinf", struct.pack(">IH", 0, len(items)), *infos), references,
            box(b"iprp", box(b"ipco", *listed), box(b"ipma", struct.pack(">II", 0, len(items)), owners)))

    return head(len(head(0)) + 8) + box(b"mdat", *(data for _, _, data in items))


def hevc(rgb, pixel_format):
    """(hvcC, units with lengths, samples as ffmpeg unpacks them) of a picture, full range, BT.601."""
    def ffmpeg(data, *args):
        return subprocess.run(["ffmpeg", "-v", "error", *args, "-"], input=data, stdout=subprocess.PIPE, check=True).stdout

    size, deep = "%dx%d" % rgb.shape[1::-1], 2 if "10" in pixel_format else 0
    x265 = ["-c:v", "libx265", "-x265-params", "log-level=none:range=full:colormatrix=smpte170m:crf=12:info=0", "-f", "hevc"]
    full = ["-vf", "scale=out_color_matrix=smpte170m:out_range=pc", "-pix_fmt", pixel_format]
    stream = ffmpeg(rgb.tobytes(), "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-i", "-", *full, *x265)
    units = [u for u in stream.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if u]
    kinds = [u[0] >> 1 & 63 for u in units]
    chroma = 0 if pixel_format.startswith("gray") else 1
    config = bytes([1]) + bytes(15) + bytes([chroma, deep, deep, 0, 0, 3, 3])
    for kind in (32, 33, 34):
        config += struct.pack(">BH", kind, 1) + b"".join(struct.pack(">H", len(u)) + u for u, k in zip(units, kinds) if k == kind)
    data = b"".join(struct.pack(">I", len(u)) + u for u, k in zip(units, kinds) if k < 32)
    return config, data, np.frombuffer(ffmpeg(stream, "-f", "hevc", "-i", "-", "-f", "rawvideo"), "<u2" if deep else "u1")


def rgb_of_planes(samples, w, h):
    """4:2:0 of BT.601 and full range to RGB: chroma in the middle of four samples of luma, 9-3-3-1."""
    half = ((h + 1) // 2, (w + 1) // 2)
    luma, chroma = samples[: w * h].reshape(h, w).astype(float), samples[w * h :].reshape(2, *half).astype(float) - 128

    def wide(plane, n, axis):
        at = np.arange(n)
        near, far = at // 2, np.clip(at // 2 + np.where(at % 2, 1, -1), 0, (n + 1) // 2 - 1)
        return (3 * plane.take(near, axis) + plane.take(far, axis)) / 4

    u, v = (wide(wide(c, h, 0), w, 1) for c in chroma)
    return np.clip(np.rint(np.stack([luma + 1.402 * v, luma - 0.344136 * u - 0.714136 * v, luma + 1.772 * u], -1)), 0, 255).astype(np.uint8)


def make_heif():
    im = Image.fromarray(noise(3, 4, 4).astype(np.uint8), "RGBA").resize((31, 22), Image.Resampling.BICUBIC)
    rgb = im.convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 7

    def add_near(name, data, pixels, worst=0):
        add(4, name, pixels.shape[1], pixels.shape[0], (worst, 0), data + np.ascontiguousarray(pixels).tobytes())

    def avif(picture, **options):
        f = io.BytesIO()
        picture.save(f, "AVIF", quality=80, **options)
        return f.getvalue()

    for name, picture, options in (
        ("odd", rgb, dict(exif=turned)), ("even", rgb.crop((0, 0, 30, 22)), dict(subsampling="4:2:2", range="limited")),
        ("alpha", im, dict(subsampling="4:4:4")), ("premultiplied", im, dict(alpha_premultiplied=True)),
        ("grey", im.convert("L"), dict(range="limited")), ("xmp", rgb, dict(xmp=b'<x tiff:Orientation="8">')),
    ):
        data = avif(picture, **options)
        add_near("heif-%s.avif" % name, data, pillow(data), name == "premultiplied")

    big = Image.fromarray(noise(5, 7, 3).astype(np.uint8)).resize((192, 128), Image.Resampling.BICUBIC)
    tiles = [big.crop((x, y, x + 64, y + 64)) for y in (0, 64) for x in (0, 64, 128)]
    coded = [avif(t) for t in tiles]
    config = coded[0][coded[0].index(b"av1C") + 4 :][:4]
    grid = heif((b"avif", b"av01", b"av1C"), config, [c[c.index(b"mdat") + 4 :] for c in coded], 3, (64, 64), (150, 100), [])
    add_near("heif-grid.avif", grid, pillow(grid))

    tiles = [hevc(np.asarray(t.resize((16, 16)).convert("L").convert("RGB")), "gray") for t in tiles]
    grey = np.concatenate([np.concatenate([t[2].reshape(16, 16) for t in tiles[i : i + 3]], 1) for i in (0, 3)])[:29, :47]
    data = heif((b"heic", b"hvc1", b"hvcC"), tiles[0][0], [t[1] for t in tiles], 3, (16, 16), (47, 29), [box(b"irot", b"\3")])
    add_near("heif-grid.heic", data, np.rot90(np.repeat(grey[..., None], 3, -1), -1), 0)
    even = np.asarray(rgb.crop((0, 0, 30, 22)))
    config, units, samples = hevc(even, "yuv420p10le")
    add_near("heif-deep.heic", heif((b"heic", b"hvc1", b"hvcC"), config, [units], 1, (30, 22), (30, 22), []), rgb_of_planes(samples >> 2, 30, 22), 2)


def tga(kind, bits, size, pixels, palette=(0, b""), first=0, flags=0, text=b"", foot=b""):
    map_bits, colours = palette
    n = len(colours) * 8 // ((map_bits + 7) & ~7) if map_bits else 0
    head = struct.pack("<BBBHHBHHHHBB", len(text), map_bits > 0, kind, first, n, map_bits, 0, 0, *size, bits, flags)
    return head + text + colours + pixels + foot


def runs_of(pixels, size):
    """Literals and runs of a Targa file, literals across the ends of rows."""
    out = b""
    for i in range(0, len(pixels), 7 * size):
        some = pixels[i : i + 7 * size]
        n = len(some) // size
        out += bytes([0x80 | (n - 1)]) + some[:size] if i // size % 2 == 0 and n == 1 else bytes([n - 1]) + some
    return out


def make_tga():
    w, h = 13, 9

    def bytes_of(n):
        return rng.integers(0, 256, n, np.uint8).tobytes()

    for kind, bits in ((1, 8), (2, 16), (2, 24), (2, 32), (3, 8), (3, 16)):
        for flags in (0, 0x10, 0x20, 0x30):
            pixels, palette = bytes_of(w * h * bits // 8), (0, b"")
            if kind == 1:
                map_bits = (16, 24, 32, 24)[flags >> 4]
                palette = (map_bits, bytes_of(200 * map_bits // 8))
            first = 30 if flags == 0x30 and kind == 1 else 0
            for packed in (0, 8):
                data = tga(kind | packed, bits, (w, h), runs_of(pixels, bits // 8) if packed else pixels, palette, first, flags, b"text"[: flags >> 4])
                add_picture("tga-%d-%d-%d.tga" % (kind | packed, bits, flags >> 4), data, pillow(data))
    data = tga(3, 1, (w, h), bytes_of(2 * h))
    add_picture("tga-3-1.tga", data, pillow(data))
    pixels = bytes_of(2 * w * h)
    data = tga(2, 15, (w, h), pixels)  # Pillow refuses 15 bits: they are 16 whose highest bit is not alpha
    opaque = tga(2, 16, (w, h), (np.frombuffer(pixels, "<u2") & 0x7FFF).astype("<u2").tobytes())
    add_picture("tga-2-15.tga", data, pillow(opaque))
    pixels = bytes_of(4 * w * h)
    for alpha in (0, 3):
        extension = bytes(494) + bytes([alpha])
        foot = extension + struct.pack("<II", 18 + len(pixels), 0) + b"TRUEVISION-XFILE.\0"
        data = tga(2, 32, (w, h), pixels, foot=foot)
        add_picture("tga-attributes-%d.tga" % alpha, data, pillow(data))
    same = bytes([0x80 | (w - 1), 1, 2, 3]) * h
    data = tga(10, 24, (w, h), same)
    add_picture("tga-runs.tga", data, pillow(data))


def ico(entries):
    """entries: (width, height, colours, bits, data)."""
    at = 6 + 16 * len(entries)
    out, end = struct.pack("<HHH", 0, 1, len(entries)), b""
    for w, h, colours, bits, data in entries:
        out += struct.pack("<BBBBHHII", w % 256, h % 256, colours, 0, 0, bits, len(data), at + len(end))
        end += data
    return out + end


def make_ico():
    w, h = 21, 10

    def part(bits, flip=1, compression=0, masks=b""):
        stride = (w * bits + 31) // 32 * 4
        palette = rng.integers(0, 256, (4 << bits) if bits <= 8 else 0, np.uint8).tobytes()
        pixels = rng.integers(0, 256, stride * h, np.uint8).tobytes()
        mask = rng.integers(0, 256, (w + 31) // 32 * 4 * h, np.uint8).tobytes()
        return bmp(40, (w, flip * 2 * h), bits, compression, pixels, palette, masks)[14:] + mask

    f = io.BytesIO()
    Image.fromarray(noise(15, 17, 4).astype(np.uint8), "RGBA").save(f, "PNG")
    png = f.getvalue()
    for bits in (1, 4, 8, 16, 24, 32):
        for flip in (1, -1) if bits < 32 else (1,):  # Pillow turns the alpha of rows from top to bottom upside down
            data = ico([(w, h, 0, bits, part(bits, flip))])
            add_picture("ico-%d-%d.ico" % (bits, flip), data, pillow(data))
    fields = struct.pack("<3I", 0xFF0000, 0xFF00, 0xFF)
    small, large, other = part(8), part(32), part(4)
    for name, entries in (
        ("png", [(17, 15, 0, 32, png)]), ("mask", [(w, h, 0, 0, large)]), ("fields", [(w, h, 0, 24, part(32, 1, 3, fields))]),
        ("largest", [(9, 9, 0, 1, other), (w, h, 0, 32, large), (17, 15, 0, 0, png), (w, h, 0, 32, small)]),
        ("fewest", [(w, h, 0, 8, small), (w, h, 0, 4, other)]), ("colours", [(w, h, 0, 8, small), (w, h, 16, 0, other)]),
        ("no-depth", [(w, h, 0, 0, small), (w, h, 0, 32, large)]), ("size", [(0, 0, 0, 8, small), (255, 255, 0, 8, large)]),
    ):
        data = ico(entries)
        add_picture("ico-%s.ico" % name, data, pillow(data))


def make_xbm():
    bits = rng.integers(0, 256, 27, np.uint8)
    text = "#define a_b_width 17\n#define a_b_height 9\n%sstatic char a_b_bits[] = {\n%s };\n"
    for name, hot, form in (("plain", "", "0x%02x"), ("hot", "#define a_b_x_hot 3\n#define a_b_y_hot 4\n", "0X%02X")):
        data = (text % (hot, ",\n ".join(form % b for b in bits))).encode()
        like = data.replace(b"0X", b"0x")  # Pillow knows the small letter only
        add_picture("xbm-%s.xbm" % name, data, pillow(like))
        data = b"/* by hand\n */\n" + data
        add_picture("xbm-%s-comment.xbm" % name, data, pillow(like))


def make_small():
    """With numbers of their own, so that what stands before them stays as it is."""
    global rng
    rng = np.random.default_rng(6)
    make_tga()
    make_ico()
    make_xbm()


def make_fax():
    """In every coding, with their options; damaged ones as libtiff mends them, and those whose predictor counts for nothing."""
    wide = np.repeat(rng.random((9, 47)) < 0.5, 7, 1)
    lines = np.where(rng.random((9, 1)) < 0.3, True, wide)
    for w in (1, 8, 67, 329):
        im = Image.fromarray(np.where(lines[:, :w], 255, 0).astype(np.uint8)).convert("1", dither=Image.Dither.NONE)
        for compression, options in (("tiff_ccitt", 0), ("group3", 0), ("group3", 1), ("group3", 5), ("group4", 0)):
            for meaning, fill, rows in ((0, 1, 9), (1, 2, 4)):
                f = io.BytesIO()
                info = {262: meaning, 266: fill, 278: rows, **({292: options} if options else {})}
                im.save(f, "TIFF", compression=compression, tiffinfo=info)
                name = "%s-%d-%d-%d" % (compression, options, meaning, w)
                add_picture("fax-%s.tif" % name, f.getvalue(), pillow(f.getvalue()))
                if w == 329:
                    data = bytearray(f.getvalue())
                    data[len(data) // 3] ^= 0x14
                    if compression != "tiff_ccitt":  # of which libtiff refuses what ends too early
                        add_picture("fax-damaged-%s.tif" % name, bytes(data), pillow(bytes(data)))
    for compression in ("jpeg", "packbits"):
        f = io.BytesIO()
        Image.fromarray(noise(9, 20, 3).astype(np.uint8)).save(f, "TIFF", compression=compression, tiffinfo={317: 3})
        add_picture("predictor-%s.tif" % compression, f.getvalue(), pillow(f.getvalue()))


def dds(w, h, flags, name, bits, masks, pixels, number=None):
    head = b"DDS " + struct.pack("<7I44x", 124, 0x1007, h, w, 0, 0, 0)
    head += struct.pack("<2I4s5I20x", 32, flags, name, bits, *masks)
    return head + (b"" if number is None else struct.pack("<5I", number, 3, 0, 1, 0)) + pixels


def make_dds():
    w, h = 18, 9
    blocks = rng.integers(0, 256, 5 * 3 * 16, np.uint8).reshape(-1, 16)
    modes = blocks.copy()  # of BC7: each mode, and none
    modes[:, 0] = [(int(v) >> i % 9 | 1) << i % 9 & 0xFF for i, v in enumerate(blocks[:, 0])]
    for number in (71, 74, 77, 80, 83, 84, 95, 96, 98, 28):
        pixels = rng.integers(0, 256, 4 * w * h, np.uint8) if number == 28 else modes if number == 98 else blocks
        data = dds(w, h, 4, b"DX10", 0, (0, 0, 0, 0), pixels.tobytes(), number)
        add_picture("dds-%d.dds" % number, data, pillow(data))
    for name in (b"DXT1", b"DXT3", b"DXT5", b"ATI1", b"ATI2", b"BC5S"):
        data = dds(w, h, 4, name, 0, (0, 0, 0, 0), blocks.tobytes())
        add_picture("dds-%s.dds" % name.decode(), data, pillow(data))
    data = dds(w, h, 4, b"DXT5", 0, (0, 0, 0, 0), blocks.tobytes())
    plain = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).astype(int)
    over = np.minimum(plain[..., :3] + 255 - plain[..., 3:], 255).astype(np.uint8)  # DXT4, which Pillow refuses, has colours times alpha
    add_picture("dds-DXT4.dds", data.replace(b"DXT5", b"DXT4"), over)
    for flags, bits, masks in (
        (0x40, 16, (0xF800, 0x7E0, 0x1F, 0)), (0x41, 16, (0x7C00, 0x3E0, 0x1F, 0x8000)), (0x41, 32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
        (0x41, 32, (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000)), (0x40, 24, (0, 0xFF00, 0xFF, 0)), (0x20000, 8, (0xFF, 0, 0, 0)),
        (0x20001, 16, (0xFF, 0, 0, 0xFF00)), (0x20, 8, (0, 0, 0, 0)),
    ):
        pixels = rng.integers(0, 256, (1024 if flags == 0x20 else 0) + w * h * bits // 8, np.uint8).tobytes()
        data = dds(w, h, flags, b"", bits, masks, pixels)
        add_picture("dds-%x-%d-%x.dds" % (flags, bits, masks[0]), data, pillow(data))


def sgi(w, h, channels, deep, samples, packed=False):
    head = struct.pack(">2s2B4H", b"\x01\xda", packed, deep, 3 if channels > 1 else 2, w, h, channels).ljust(512, b"\0")
    if not packed:
        return head + samples.tobytes()
    rows, places = [], []
    at = 512 + 8 * channels * h
    for row in samples.reshape(channels * h, w, deep):
        half = w // 2  # as they are, then a run of the last one
        count = lambda n: bytes([0] * (deep - 1) + [n])
        data = count(128 | half) + row[:half].tobytes() + count(w - half) + row[-1].tobytes() + count(0)
        rows.append(data)
        places.append((at, len(data) // deep))
        at += len(data)
    table = [p for p, _ in places] + [n for _, n in places]
    return head + struct.pack(">%dI" % len(table), *table) + b"".join(rows)


def qoi(w, h, channels, data):
    return b"qoif" + struct.pack(">2I2B", w, h, channels, 0) + data


def make_rare():
    w, h = 11, 7
    for channels in (1, 3, 4):
        for deep in (1, 2):
            samples = rng.integers(0, 256, (channels, h, w, deep), np.uint8)
            for packed in (False, True):
                data = sgi(w, h, channels, deep, samples, packed)
                add_picture("sgi-%d-%d-%d.sgi" % (channels, deep, packed), data, pillow(data))
    steps = [b"\xfe" + bytes(v) for v in rng.integers(0, 256, (9, 3))] + [b"\xff" + bytes(v) for v in rng.integers(0, 256, (9, 4))]
    steps += [bytes([v]) for v in rng.integers(0, 128, 40)] + [bytes([v | 128, w & 255]) for v, w in rng.integers(0, 256, (12, 2)) & 63]
    steps += [bytes([192 + v]) for v in (0, 3, 9)]
    body = b"".join(steps[i] for i in rng.permutation(len(steps)))
    for channels in (3, 4):
        data = qoi(w, h, channels, body)
        add_picture("qoi-%d.qoi" % channels, data, pillow(data))
    lists = []
    for mode in ("1", "L", "P", "RGB"):
        for wide in (w, 40):
            im = Image.fromarray(noise(h, wide, 3).astype(np.uint8)).convert(mode)
            f = io.BytesIO()
            im.save(f, "PCX")
            lists.append(f.getvalue())
            add_picture("pcx-%s-%d.pcx" % (mode, wide), f.getvalue(), pillow(f.getvalue()))
    for planes in (2, 4):
        head = struct.pack("<4B6H", 10, 5, 1, 1, 0, 0, w - 1, h - 1, 72, 72) + rng.integers(0, 256, 48, np.uint8).tobytes()
        data = (head + struct.pack("<2BH", 0, planes, 2)).ljust(128, b"\0") + rng.integers(0, 192, 2 * planes * h, np.uint8).tobytes()
        add_picture("pcx-planes-%d.pcx" % planes, data, pillow(data))
    data = struct.pack("<4I", 0x3ADE68B1, 16, 16 + len(lists[4]), 0) + lists[4] + lists[0]
    add_picture("list.dcx", data, pillow(lists[4]))  # in a list, Pillow looks for the palette at the end of the file

    def part(bits):
        stride = (w * bits + 31) // 32 * 4
        palette = bytes(4) + b"\xff\xff\xff\0" if bits == 1 else rng.integers(0, 256, (4 << bits) if bits <= 8 else 0, np.uint8).tobytes()
        pixels = rng.integers(0, 256, stride * h, np.uint8).tobytes()
        return bmp(40, (w, 2 * h), bits, 0, pixels, palette, b"")[14:] + rng.integers(0, 256, (w + 31) // 32 * 4 * h, np.uint8).tobytes()

    for bits in (1, 4, 8, 24, 32):
        entries = [(w - 1, h - 1, 0, 5, part(8)), (w, h, 0, 3, part(bits)), (w, h, 0, 1, part(8))]
        data = b"\0\0\2" + ico(entries[1:2] if bits == 32 else entries)[3:]  # Pillow reads the alpha of a single one
        add_picture("cursor-%d.cur" % bits, data, pillow(data))


def lzw(values, bits):
    """Codes of GIF: each word that is new gets one, up to 4096, after which the words stay for a while."""
    clear, out, held, n_held = 1 << bits, bytearray(), 0, 0

    def put(code):
        nonlocal held, n_held
        held |= code << n_held
        n_held += width
        while n_held >= 8:
            out.append(held & 255)
            held >>= 8
            n_held -= 8

    words, width, word, met = None, bits + 1, (), 0
    for value in [int(v) for v in values] + [None]:
        if words is None:
            put(clear)
            words, width, n_words = {(i,): i for i in range(clear)}, bits + 1, clear + 2
        if value is not None and word + (value,) in words:
            word += (value,)
            continue
        if word:
            put(words[word])
            if n_words < 4096:
                words[word + (value,)] = n_words
                width += n_words == 1 << width and width < 12
                n_words += 1
            else:
                met += 1
                if met % 50 == 0:
                    words = None
        if words is None:
            put(clear)
            words, width, n_words = {(i,): i for i in range(clear)}, bits + 1, clear + 2
        word = (value,)
    put(clear + 1)
    return bytes(out) + bytes([held]) * (n_held > 0)


def gif(canvas, frame, values, bits, palette=b"", local=b"", interlaced=False, key=None, more=b"", name=b"GIF89a"):
    def flags(colours):
        return 128 | (len(colours) // 3).bit_length() - 2 if colours else 0

    x, y, w, h = frame
    rows = list(range(h))
    if interlaced:
        rows = rows[::8] + rows[4::8] + rows[2::4] + rows[1::2]
    data = lzw(values[rows].ravel(), bits)
    control = b"" if key is None else struct.pack("<4BH2B", 0x21, 0xF9, 4, 1, 7, key, 0)
    head = name + struct.pack("<2H3B", *canvas, flags(palette), 0, 0) + palette
    image = b"," + struct.pack("<4HB", x, y, w, h, flags(local) | 64 * interlaced) + local + bytes([bits])
    pieces = b"".join(bytes([len(p)]) + p for p in (data[i : i + 255] for i in range(0, len(data), 255)))
    return head + more + control + image + pieces + b"\0"


def make_gif():
    w, h = 21, 19
    comment = b"!\xfe\7comment\0!\xff\x0bNETSCAPE2.0\3\1\0\0\0"

    def colours(n):
        return rng.integers(0, 256, 3 * n, np.uint8).tobytes()

    def add_gif(label, *args, **options):
        data = gif(*args, **options)
        add_picture("gif-" + label + ".gif", data + b";", pillow(data + b";"))

    def values(bits, w=w, h=h):
        return noise(h, w, 1, 1 << bits)[..., 0]

    for bits in range(1, 9):
        for interlaced in (False, True):
            add_gif("%d%s" % (bits, "i" * interlaced), (w, h), (0, 0, w, h), values(bits), max(2, bits), colours(1 << bits), interlaced=interlaced)
    for tall in range(1, 10):
        add_gif("tall-%d" % tall, (3, tall), (0, 0, 3, tall), values(4, 3, tall), 4, colours(16), interlaced=True)
    add_gif("long", (300, 200), (0, 0, 300, 200), rng.integers(0, 256, (200, 300)), 8, colours(256), more=comment)
    add_gif("runs", (300, 200), (0, 0, 300, 200), np.repeat(rng.integers(0, 256, (200, 1)), 300, 1), 8, colours(256), name=b"GIF87a")
    add_gif("local", (w, h), (0, 0, w, h), values(4), 4, colours(8), colours(16), more=comment)
    add_gif("beyond", (w, h), (0, 0, w, h), values(8), 8, colours(8))
    add_gif("none", (w, h), (0, 0, w, h), values(8), 8)
    add_gif("ramp", (w, h), (0, 0, w, h), values(4), 8, bytes(v for v in range(4) for _ in range(3)))
    grey = values(4)
    data = gif((w, h), (0, 0, w, h), grey, 8, colours(16), bytes(v for v in range(4) for _ in range(3)))
    add_picture("gif-local-ramp.gif", data + b";", np.repeat(grey[..., None], 3, 2).astype(np.uint8))  # Pillow: the other palette
    for key in (None, 0, 5, 200):
        add_gif("part-%s" % key, (w, h), (3, 2, 11, 9), values(4, 11, 9), 4, colours(16), key=key)
        add_gif("grey-%s" % key, (w, h), (0, 4, w, 9), values(4, w, 9), 4, key=key)
    add_gif("grown", (5, 40), (10, 2, w, h), values(4), 4, colours(16), key=3, interlaced=True)
    add_gif("bits-11", (w, h), (0, 0, w, h), values(11), 11, colours(256))
    add_gif("twice", (w, h), (0, 0, w, h), values(4), 4, colours(16), key=2, more=struct.pack("<4BH2B", 0x21, 0xF9, 4, 0, 7, 9, 0) + b"??")


def exif_of(kind, count=1, big=False, magic=42, values=None):
    """An entry of one orientation, 6, in numbers of a kind of TIFF."""
    order = ">" if big else "<"
    code = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I", 16: "Q"}[kind]
    raw = struct.pack(order + code * count, *(values or ([6, 1] if len(code) == 2 else [6]) * count))
    head = (b"MM" if big else b"II") + struct.pack(order + "HIHHHI", magic, 8, 1, 274, kind, count)
    return head + (raw.ljust(4, b"\0") + bytes(4) if len(raw) <= 4 else struct.pack(order + "II", len(head) + 8, 0) + raw)


def make_turned():
    """Orientation as anyone may write it."""
    samples = noise(5, 7, 3)
    xmp = chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="8"/>')
    blocks = {"kind-%d-%d" % (kind, big): exif_of(kind, big=big) for kind in (*range(1, 14), 16) for big in (False, True)}
    blocks.update({"three-%d" % kind: exif_of(kind, 3) for kind in (3, 4, 8)})
    blocks.update(prefix=b"Exif\0\0" + exif_of(3), swapped=exif_of(3, magic=42 << 8), half=exif_of(5, values=[13, 2]))
    blocks.update(below=exif_of(8, values=[-3]), beyond=exif_of(3, 100)[:-9], none=exif_of(5, values=[6, 0]))
    for label, block in blocks.items():
        data = png(samples, 2, 8, before=chunk(b"eXIf", block) + xmp)
        add_picture("turned-%s.png" % label, data, pillow(data))
    f = io.BytesIO()
    Image.fromarray(samples.astype(np.uint8)).save(f, "JPEG", exif=b"Exif\0\0Exif\0\0" + exif_of(8))
    add_picture("turned-prefix.jpg", f.getvalue(), pillow(f.getvalue()))
    for kind in (1, 3, 8, 9):
        wide = tiff(samples, 8, 2, more={274: 6})
        at = wide.index(struct.pack("<HHI", 274, 3, 1))
        data = wide[: at + 2] + struct.pack("<H", kind) + wide[at + 4 :]
        add_picture("turned-%d.tif" % kind, data, pillow(data))


def make_odd_png():
    """Palettes of any length and none, transparency of any length, and chunks where others do not put them."""

    def add_odd(label, data):
        add_picture("png-odd-%s.png" % label, data, pillow(data))

    for depth in (2, 8):
        samples = noise(9, 14, 1, 1 << depth)
        for n in (None, 0, 2, 4, 47, 770):
            for alphas in (0, 7):
                chunks = b"" if n is None else chunk(b"PLTE", rng.integers(0, 256, n, np.uint8).tobytes())
                chunks += chunk(b"tRNS", rng.integers(0, 256, alphas, np.uint8).tobytes()) if alphas else b""
                add_odd("%d-%s-%d" % (depth, n, alphas), png(samples, 3, depth, before=chunks))
    palette = chunk(b"PLTE", rng.integers(0, 256, 48, np.uint8).tobytes())
    alphas = chunk(b"tRNS", rng.integers(0, 256, 16, np.uint8).tobytes())
    samples = noise(9, 14, 3, 16)
    add_odd("behind", png(samples[..., :1], 3, 4, before=palette, after=alphas))
    add_odd("before", png(samples[..., :1], 3, 4, before=alphas + palette))
    for label, count, key in (("grey", 1, b"\0\5\0\0"), ("rgb", 3, b"\0\5\0\5\0\5??")):
        add_odd("key-" + label, png(samples[..., :count], 2 * (count > 1), 8, before=chunk(b"tRNS", key)))
    data = png(samples, 2, 8)
    add_odd("first", data[:8] + chunk(b"tEXt", b"Title\0none") + data[8:])


def make_xz():
    rgba = noise(19, 23, 4)
    runs = np.repeat(np.repeat(noise(7, 5, 3), 60, 0), 80, 1)  # matches of all lengths and distances
    smooth = np.asarray(picture().resize((70, 50), Image.Resampling.BICUBIC)).astype(int)
    random = rng.integers(0, 256, (20, 31, 3))  # chunks that are not packed
    pixels = {"rgb": rgba[..., :3], "runs": runs, "smooth": smooth, "random": random}
    packings = {"plain": {}, "delta": {"dist": 3}, "places": {"lc": 0, "lp": 4, "pb": 4}, "fast": {"lc": 4, "pb": 0, "preset": 0}}
    for label, samples in pixels.items():
        for how, options in packings.items():
            XZ.update({"dist": 0, "lc": 3, "lp": 0, "pb": 2, "preset": 6}, **options)
            data = tiff(samples, 8, 2, rows=300, compression=34925, big=how == "plain")
            if label != "random" or how in ("plain", "delta"):
                add_picture("xz-%s-%s.tif" % (label, how), data, pillow(data))
    for planar in (1, 2):
        for tile in (None, (16, 16)):
            options = dict(planar=planar, tile=tile, compression=34925)
            for label, samples, meaning, more in (("cmyk", rgba, 5, {}), ("alpha", rgba, 2, {338: 2})):
                data = tiff(samples, 8, meaning, **options, more=more)
                add_picture("xz-%s-%d-%d.tif" % (label, planar, tile is not None), data, pillow(data))
    colours = {320: [int(v) for v in rng.integers(0, 65536, 768)]}
    for label, data in (
        ("palette", tiff(rgba[..., :1], 8, 3, compression=34925, more=colours)),
        ("difference", tiff(rgba[..., :3].astype("u1"), 8, 2, compression=34925, predictor=2)),
    ):
        add_picture("xz-%s.tif" % label, data, pillow(data))


def make_avif():
    """Colours as libyuv has them, in all that Pillow writes."""
    alpha = Image.fromarray(rng.integers(0, 256, (13, 17, 4), np.uint8), "RGBA")
    for subsampling in ("4:2:0", "4:2:2", "4:4:4", "4:0:0"):
        for limits in ("full", "limited"):
            for label, im in (("rgb", alpha.convert("RGB")), ("alpha", alpha)):
                f = io.BytesIO()
                im.save(f, "AVIF", quality=90, subsampling=subsampling, range=limits)
                pixels = pillow(f.getvalue())
                name = "avif-%s-%s-%s.avif" % (label, subsampling.replace(":", ""), limits)
                add(4, name, 17, 13, (0, 0), f.getvalue() + np.ascontiguousarray(pixels).tobytes())


def make_webp():
    """Lossless ones, with all transforms: a palette of each packing, and of each method what it finds for the best."""
    smooth = Image.fromarray(noise(3, 4, 4).astype(np.uint8), "RGBA").resize((61, 43), Image.Resampling.BICUBIC)
    gradient = np.stack(np.meshgrid(np.arange(67), np.arange(41)), -1)[..., [0, 1, 0, 1]] * [3, 5, 2, 1] + noise(41, 67, 4, 9)
    sources = {"smooth": smooth, "noise": Image.fromarray(noise(29, 31, 4).astype(np.uint8), "RGBA"),
               "gradient": Image.fromarray((gradient & 255).astype(np.uint8), "RGBA")}
    for n in (1, 2, 3, 4, 5, 16, 17, 200):
        colours = rng.integers(0, 256, (n, 4), np.uint8)
        sources["colours-%d" % n] = Image.fromarray(colours[rng.integers(0, n, (19, 37))], "RGBA")
    for label, im in sources.items():
        for mode in ("RGB", "RGBA"):
            for method in (0, 3, 6) if "-" not in label else (4,):
                f = io.BytesIO()
                im.convert(mode).save(f, "WEBP", lossless=True, method=method, quality=100, exact=True)
                data = f.getvalue()
                add_picture("webp-%s-%s-%d.webp" % (label, mode, method), data, pillow(data))
    f = io.BytesIO()
    smooth.convert("RGB").save(f, "WEBP", lossless=True, exif=b"Exif\0\0" + exif_of(3))
    add_picture("webp-turned.webp", f.getvalue(), pillow(f.getvalue()))
    f = io.BytesIO()
    smooth.save(f, "WEBP", lossless=True, save_all=True, append_images=[smooth.rotate(180)], duration=9)
    add_picture("webp-animated.webp", f.getvalue(), pillow(f.getvalue()))


WEBP_CONFIG = ["lossless", "quality", "method", "hint", "size", "psnr", "segments", "sns", "filter", "sharpness", "strong", "auto",
               "alpha_method", "alpha_filter", "alpha_quality", "passes", "show", "preprocessing", "partitions"]


def libwebp(im, **options):
    """A lossy file by libwebp's encoder: its WebPConfig, which begins with these numbers, and a WebPPicture, of which the size
    and where the bytes go are set."""
    encoder, config, picture, out = ctypes.CDLL("libwebp.so.7"), (ctypes.c_int * 64)(), (ctypes.c_int * 128)(), io.BytesIO()
    writer = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)(
        lambda data, n, _: out.write(ctypes.string_at(data, n)) >= 0)
    assert encoder.WebPConfigInitInternal(config, 0, ctypes.c_float(options.pop("quality")), 0x0200)
    for name, value in options.items():
        config[WEBP_CONFIG.index(name)] = value
    assert encoder.WebPValidateConfig(config) and encoder.WebPPictureInitInternal(picture, 0x0200)
    picture[2], picture[3] = im.size
    ctypes.c_void_p.from_buffer(picture, 96).value = ctypes.cast(writer, ctypes.c_void_p).value
    assert encoder.WebPPictureImportRGBA(picture, im.convert("RGBA").tobytes(), 4 * im.width)
    assert encoder.WebPEncode(config, picture)
    encoder.WebPPictureFree(picture)
    return out.getvalue()


def make_lossy_webp():
    """With numbers of its own. All ways to guess a block, both filters with levels and deltas, segments, several streams of coefficients, odd sizes, and
    alpha of either kind with each filter."""
    global rng
    rng = np.random.default_rng(77)
    smooth = Image.fromarray(noise(3, 4, 4).astype(np.uint8), "RGBA").resize((61, 43), Image.Resampling.BICUBIC)
    rough = Image.fromarray(noise(5, 6, 3).astype(np.uint8)).resize((45, 50), Image.Resampling.NEAREST)
    mixed = Image.fromarray(np.clip(np.asarray(smooth.convert("RGB")) + rng.normal(0, 12, (43, 61, 3)), 0, 255).astype(np.uint8))
    cases = [(smooth, "RGB", dict(quality=q)) for q in (0, 60)]
    cases += [(rough, "RGB", dict(quality=q, method=6, sns=100)) for q in (3, 30, 98)]
    cases += [(mixed, "RGB", dict(quality=q, strong=strong, sharpness=sharpness, filter=level, segments=n, partitions=parts))
              for q, strong, sharpness, level, n, parts in
              ((40, 0, 0, 60, 4, 0), (20, 0, 6, 100, 1, 3), (40, 1, 3, 100, 2, 1), (70, 1, 7, 20, 4, 2), (40, 1, 0, 0, 4, 0), (99, 1, 0, 50, 3, 3))]
    cases += [(mixed.crop((0, 0, w, h)), "RGB", dict(quality=50)) for w, h in ((1, 1), (1, 43), (61, 1), (2, 2), (16, 16), (17, 32))]
    cases += [(smooth, "RGBA", dict(quality=30, alpha_method=method, alpha_filter=n, alpha_quality=q))
              for method, n, q in ((0, 0, 100), (1, 0, 100), (1, 1, 40), (1, 2, 100))]
    for i, (im, mode, options) in enumerate(cases):
        data = libwebp(im.convert(mode), **options)
        add_picture("vp8-%s-%d.webp" % (mode, i), data, pillow(data))
    for n in range(4):  # alpha that is not packed, as differences of each kind: libwebp writes it with none
        data = libwebp(smooth, quality=10, alpha_method=0)
        at = data.index(b"ALPH") + 8
        data = data[:at] + bytes([data[at] & 0xF3 | n << 2]) + data[at + 1 :]
        add_picture("vp8-filter-%d.webp" % n, data, pillow(data))
    data = libwebp(smooth, quality=10)
    flags = data.index(b"VP8X") + 8
    data = data[:flags] + b"\0" + data[flags + 1 :]
    add_picture("vp8-no-alpha.webp", data, pillow(data))


def make_late():
    """What came last, with numbers of its own."""
    global rng
    rng = np.random.default_rng(7)
    make_fax()
    make_dds()
    make_rare()
    make_gif()
    make_xz()
    make_turned()
    make_odd_png()
    make_avif()
    make_webp()
    make_lossy_webp()


def make_broken():
    global rng
    rng = np.random.default_rng(5)
    smooth = Image.fromarray(noise(3, 4, 3).astype(np.uint8)).resize((61, 43), Image.Resampling.BICUBIC)
    make_broken_jpeg(smooth)
    make_broken_png(noise(9, 14, 3))


# ---- Patches -------------------------------------------------------------------------------------------


def pattern(kind, w, h):
    """The same picture as g4_pattern in test_media.c: noise, black and white noise, or a ramp."""
    x, y, c = np.meshgrid(np.arange(w, dtype=np.uint32), np.arange(h, dtype=np.uint32), np.arange(3, dtype=np.uint32))
    if kind == 2:
        return ((x * 5 + y * 3 + c * 40) >> 2).astype(np.uint8)
    v = x * np.uint32(2654435761) ^ y * np.uint32(2246822519) ^ c * np.uint32(3266489917)
    v ^= v >> 15
    v *= np.uint32(2246822519)
    v ^= v >> 13
    v = (v >> 8).astype(np.uint8)
    return np.where(v > 127, 255, 0).astype(np.uint8) if kind == 1 else v


def make_patches():
    processor = Gemma4ImageProcessorPil()
    sizes = [(1, 1), (3, 2), (16, 16), (48, 48), (47, 49), (224, 224), (640, 480), (768, 768), (480, 853), (1920, 1080), (1, 500), (700, 4)]
    cases = [(w, h, 280, i % 3) for i, (w, h) in enumerate(sizes)]
    cases += [(333, 222, b, i % 3) for i, b in enumerate((70, 140, 560, 1120))]
    cases += [(912, 672, 280, 0), (912, 1000, 280, 1), (3000, 7, 70, 0), (5, 2500, 1120, 1), (4000, 3000, 280, 0),
              (1080, 2400, 1120, 1), (13000, 50, 280, 0),
              (1080, 2400, 280, 0), (900, 1200, 70, 1), (48, 3000, 280, 0), (1440, 1440, 280, 0), (700, 1600, 140, 1)]
    for w, h, budget, kind in cases:
        image = Image.fromarray(pattern(kind, w, h))
        out = processor(image, max_soft_tokens=budget, return_tensors="np", input_data_format="channels_first")
        n = int(out["num_soft_tokens_per_image"][0]) * 9
        pixels = out["pixel_values"][0][:n]
        positions = out["image_position_ids"][0][:n].astype("<i4")
        assert pixels.dtype == np.float32 and positions.min() >= 0
        raw = pixels.tobytes() + positions.tobytes()
        middle = pixels[n // 2, 380:388].astype("<f4").tobytes()
        grid_w, grid_h = (int(v) + 1 for v in positions.max(0))
        add(2, "patches-%dx%d-%d" % (w, h, budget), w, h, sums_of(raw), struct.pack("<5i", kind, budget, n, grid_w, grid_h) + middle)


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "data", "pictures.bin")
    make_png()
    make_jpeg()
    make_pnm()
    make_patches()
    make_broken()
    make_foreign()
    make_bmp()
    make_heif()
    make_tiff()
    make_small()
    make_late()
    with open(out, "wb") as f:
        f.write(b"G4PICS1\n" + b"".join(records))
    print("%s: %d records, %d bytes" % (out, len(records), os.path.getsize(out)))


main()
