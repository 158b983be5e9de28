#!/usr/bin/env python3
"""Convert a Gemma 4 checkpoint (Hugging Face folder, GGUF or hub id) to the flat model file of gemma4.c.

    python3 export.py SOURCE -o model.g4 [--type q4_0|q8_0|bf16|f32]

Needs numpy; gguf for GGUF files with IQ types and others that become another one, huggingface_hub for hub ids, tqdm for a nicer
progress bar. Never torch.
The format is described in engine/parts.h, "The model file"; this is the only program that writes it.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import functools
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import signal
import stat
import struct
import sys
import threading
import time
import warnings
import zlib

try:
    import numpy as np
except ImportError:
    sys.exit("export.py: needs the Python package numpy: pip install numpy")

# ---- Numbers: block formats and layouts ----------------------------------------------------------

BLOCK = 32  # weights of a row that the smaller block formats keep together
F32, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K, Q2_ROW, Q4_ROW, Q8_ROW = range(13)  # g4_type
PLAIN, ROWS, GROUPS16 = range(3)  # g4_layout
SCALE_NONE, SCALE_F16, SCALE_BF16 = range(3)  # g4_scale_type


class ExportError(Exception):
    """Something about the source or the request; its text is the one line the user sees."""


def one_line(text):
    """text for a terminal: what is not printable is escaped, and no name from a file makes it longer than a paragraph."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text)[:1000])
    return text if len(text) < 1000 else text[:1000] + "..."


def shown(value):
    """A wrong value, as messages quote it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def size_text(n):
    """So many bytes in the unit that fits: 999 bytes, 1.00 KB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if n >= scale:
            return f"{n / scale:.2f} {unit}"
    return f"{n} bytes"


class Fields:
    """The values of a configuration by name, checked as they are taken: a wrong one is refused with its place, its name and
    what was expected. JSON's null is as good as absent, and 64.0 is the count 64."""

    REQUIRED = object()

    def __init__(self, values, where):
        self.values, self.where = values, where

    def refuse(self, key, value, expected):
        raise ExportError(f"{self.where}: {key} is {shown(value)}, expected {expected}")

    def get(self, key, default=REQUIRED):
        value = self.values.get(key)
        value = default if value is None else value
        if value is Fields.REQUIRED:
            raise ExportError(f"{self.where} has no {key}")
        return value

    def count(self, key, default=REQUIRED, low=0, high=(1 << 31) - 1):
        return self.checked_count(key, self.get(key, default), low, high)

    def checked_count(self, key, value, low=0, high=(1 << 31) - 1):
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        if not isinstance(whole, int) or isinstance(whole, bool) or not low <= whole <= high:
            self.refuse(key, value, f"a count from {low} to {high}")
        return whole

    def number(self, key, default=REQUIRED, low=0.0, high=1e30):
        value = self.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            self.refuse(key, value, f"a number from {low:g} to {high:g}")
        return float(value)

    def flag(self, key, default=False):
        value = self.get(key, default)
        if value not in (True, False):
            self.refuse(key, value, "true or false")
        return bool(value)

    def text(self, key, default=REQUIRED):
        value = self.get(key, default)
        if value is not None and not isinstance(value, str):
            self.refuse(key, value, "a text")
        return value

    def list(self, key, n=None):
        value = self.get(key)
        if not isinstance(value, list) or n not in (None, len(value)):
            self.refuse(key, value, f"a list of {n}" if n is not None else "a list")
        return value

    def counts(self, key, n, low=0, high=(1 << 31) - 1):
        """n counts, whether there is one for all or a list of them."""
        value = self.get(key)
        if not isinstance(value, list):
            return [self.count(key, low=low, high=high)] * n
        return [self.checked_count(f"{key}[{i}]", v, low, high) for i, v in enumerate(self.list(key, n))]

    def section(self, key, default=None):
        """The object of that name as Fields; None when there is none."""
        value = self.get(key, default)
        if value is not None and not isinstance(value, dict):
            self.refuse(key, value, "an object")
        return None if value is None else Fields(value, f"{self.where}: {key}")

    def only(self, key, wanted, default=None):
        """Some settings exist in one way only."""
        value = self.get(key, default)
        if value != wanted:
            raise ExportError(f"{self.where}: {key} = {shown(value)} is not supported (only {wanted!r})")


def round_up(n, step):
    return (n + step - 1) // step * step


def bf16_to_f32(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def f32_to_bf16(x):
    """Round to nearest, ties to even; x must be finite."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


MAX_BF16 = bf16_to_f32(np.array([0x7F7F], np.uint16))[0]  # what is larger rounds to infinity


def inverse_of(d):
    """1 / d, and 0 where that is no float32: block scales that small are 0 in f16 as well."""
    return np.divide(np.float32(1), d, out=np.zeros_like(d), where=np.abs(d) > np.float32(3e-39))


def f32_to_f16(x, what):
    h = x.astype(np.float16)
    if np.isinf(h).any():
        raise ExportError(f"{what}: a weight is too large for a block scale in f16: try --type bf16")
    return h.view(np.uint16)


def largest(x):
    """The element of each row of x (n, m) with the largest magnitude, the first one of equals."""
    return np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)[:, 0]


def quantize_q4_0_bf16(x):
    """The same with a bf16 scale, for the odd block of a lattice tensor that is on no lattice. The scale is coarse, so q is
    found with the rounded one."""
    d = f32_to_bf16(largest(x) / np.float32(-8) + np.float32(0))
    return np.clip(np.rint(x * inverse_of(bf16_to_f32(d))[:, None]), -8, 7).astype(np.int8), d


def fit_lattice(x, rounded):
    """Find 4-bit integers and a bf16 scale that reproduce blocks exactly, as quantisation-aware training leaves them.

    x (n, 32); rounded(v): v as the source's type would store it (bf16(q * s) for a bf16 source, q * s for f32).
    Returns q (n, 32) int8, scale bits (n,) bf16, exact (n,) bool. The largest magnitude of a block is k steps for some
    k in 1..8, so there are eight steps to try, and three neighbouring bf16 scales for each. A block that was not trained
    this way is dropped after a look at four of its weights.
    """
    n = len(x)
    q = np.zeros((n, BLOCK), np.int8)
    bits = np.zeros(n, np.uint16)
    top = largest(x)
    exact = top == 0
    todo = np.flatnonzero(~exact)
    for k in (8, 7, 6, 5, 4, 3, 2, 1):
        if not todo.size:
            break
        # The sign of the scale makes the largest -k: for k = 8 the only way (8 is not a 4-bit integer).
        step = top[todo] / np.float32(-k)
        # Both the weight and the largest are rounded by up to 2^-9 of themselves: 8 * 2^-8 = 0.03 steps.
        few = x[todo, 5::8] / step[:, None]
        near = np.flatnonzero((np.abs(few - np.rint(few)) < 0.05).all(axis=1))
        if not near.size:
            continue
        idx, step = todo[near], step[near]
        y = x[idx]
        whole = np.rint(y / step[:, None])
        fits = (whole >= -8).all(axis=1) & (whole <= 7).all(axis=1)
        idx, y, whole, base = idx[fits], y[fits], whole[fits], f32_to_bf16(step[fits])
        for delta in (0, 1, -1):
            if not idx.size:
                break
            scale = (base.astype(np.int32) + delta).astype(np.uint16)
            hit = (rounded(whole * bf16_to_f32(scale)[:, None]) == y).all(axis=1)
            q[idx[hit]], bits[idx[hit]], exact[idx[hit]] = whole[hit].astype(np.int8), scale[hit], True
            idx, y, whole, base = idx[~hit], y[~hit], whole[~hit], base[~hit]
        todo = todo[~exact[todo]]
    return q, bits, exact


def nibbles(raw, half):
    """raw (n, m) -> (n, 2 m): of every `half` bytes the low nibbles, then the high ones."""
    parts = raw.reshape(len(raw), -1, 1, half)
    return np.concatenate([parts & 15, parts >> 4], axis=2).reshape(len(raw), -1)


def from_nibbles(q, half):
    parts = q.reshape(len(q), -1, 2, half)
    return (parts[:, :, 0] | parts[:, :, 1] << 4).reshape(len(q), -1)


def planes(raw, bits):
    """raw (n, m) -> (n, m * 8 / bits): of every 32 bytes the lowest bits, then the next ones."""
    parts = raw.reshape(len(raw), -1, 1, 32) >> np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    return (parts & ((1 << bits) - 1)).reshape(len(raw), -1)


def from_planes(q, bits):
    parts = q.reshape(len(q), -1, 8 // bits, 32) << np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    return np.bitwise_or.reduce(parts, axis=2).reshape(len(q), -1)


SEARCH_WEIGHTS = 16384  # Scales are searched in pieces of so many weights, which stay in a cache.
# The largest weight of a block, or the distance of its ends, in steps: that of plain rounding and so much more or less.
SEARCH_STEPS = tuple(np.float32(0.35 * i) for i in range(-2, 3))
SEARCH_ROUNDS = 1  # rounding with the best scale so far, then the best scale for what came of it


def least_squares(xw, w, q):
    """Sums over blocks (columns): w x q and w q q."""
    return np.einsum("ij,ij->j", xw, q), np.einsum("ij,ij->j", w * q, q)


def rounded_to(y, low, high):
    np.rint(y, out=y)
    return np.clip(y, low, high, out=y)


def search_scale(x, w, low, high):
    """x, w (m, n), blocks as columns -> d (n,) with a small sum of w (x - d q)^2 over whole q from low to high. Of what each step
    rounds to, d = sum w x q / sum w q q is the best scale, and takes (sum w x q)^2 / sum w q q off the sum."""
    xw, top = w * x, np.take_along_axis(x, np.abs(x).argmax(axis=0)[None], axis=0)[0]
    best, scale = np.zeros(x.shape[1], np.float32), np.zeros(x.shape[1], np.float32)
    inverse = inverse_of(top)

    def attempt(inverse_scale):
        xq, qq = least_squares(xw, w, rounded_to(x * inverse_scale, low, high))
        d = xq * inverse_of(qq)
        better = xq * d > best
        best[better], scale[better] = (xq * d)[better], d[better]

    for step in SEARCH_STEPS:
        attempt(inverse * np.float32(low - step))
    attempt(inverse * np.float32(high))  # the other sign: the largest becomes the most positive q
    for _ in range(SEARCH_ROUNDS):
        attempt(inverse_of(scale))
    return scale


def search_line(x, w, top, most=np.inf):
    """The same for d q + m with whole q from 0 to top and m <= most -> d, m (n,)."""
    xw, sw = w * x, w.sum(axis=0)
    sx = xw.sum(axis=0)
    low, high = np.minimum(x.min(axis=0), np.float32(most)), x.max(axis=0)
    best, d, m = np.full(x.shape[1], np.inf, np.float32), np.zeros(x.shape[1], np.float32), low.copy()

    def attempt(shifted, inverse_scale):
        q = rounded_to(shifted * inverse_scale, 0, top)
        xq, qq = least_squares(xw, w, q)
        sq = np.einsum("ij,ij->j", w, q)
        new_m = np.minimum((qq * sx - sq * xq) * inverse_of(sw * qq - sq * sq), np.float32(most))
        new_d = (xq - new_m * sq) * inverse_of(qq)
        error = new_d * (new_d * qq + 2 * (new_m * sq - xq)) + new_m * (new_m * sw - 2 * sx)
        better = error < best
        best[better], d[better], m[better] = error[better], new_d[better], new_m[better]

    span, shifted = inverse_of(high - low), x - low
    for step in SEARCH_STEPS:
        attempt(shifted, span * np.float32(top + step))
    for _ in range(SEARCH_ROUNDS):
        attempt(x - m, inverse_of(d))
    return d, m


def transposed(x, m):
    """Any array as columns of m: long rows are what numpy is fast on."""
    return np.ascontiguousarray(x.reshape(-1, m).T)


class WeightType:
    """A type of weights, and how it is written in both layouts (engine/parts.h, "Weight types").

    A quantised row is taken apart into q (rows, cols) int8 and a few arrays of scales (rows, cols / so many weights); zeros in
    all of them are zeros. What each kind of type adds:
        unpack, pack  blocks of GGUF (n, bytes) to q and scales of n rows of one block, and back
        factors       the scales -> factor and summand of each `share` weights: value = factor * (q - zero) + summand
        quantize      x (n, block) float32 -> q and scales, for a message about `what`; plain rounding
        search        the same with scales that are searched: small squares of the errors, weighted with w (n, block). None: there
                      are none that are better than plain ones by much
    """
    search = None

    def __init__(self, name, bits, block, size, step=64, share=BLOCK, scales=(), zero=0, bias=0, gap=0):
        self.name, self.gguf = name, name.upper()             # here and in GGUF
        self.bits, self.block, self.size = bits, block, size  # of a weight; weights and bytes of a block of GGUF
        self.step, self.share = step, share                   # columns of a step; weights with the same factor
        self.scales = scales                                  # (NumPy type, weights) of each array of scales
        self.zero, self.bias = zero, bias                     # the q of a weight of 0; what is stored is q + bias
        # Bytes of a row in a step; the gap stands behind the first array of scales.
        self.gap, self.step_bytes = gap, gap + step * bits // 8 + sum(np.dtype(d).itemsize * step // n for d, n in scales)

    def holds(self, other):
        """Can every block of that type be written in this one as it is?"""
        return bool(self.scales) and self.scales == other.scales and self.bits >= other.bits

    def dequantize(self, q, scales):
        factor, summand = self.factors(*scales)
        x = (q.reshape(*factor.shape, self.share) - np.int8(self.zero)) * factor[:, :, None]
        if summand is not None:
            x += summand[:, :, None]
        return x.reshape(q.shape)

    def lesser(self, x, w, a, b):
        """Of two ways (q, scales) to write blocks x (n, block), for each the one with the smaller sum of w error^2."""
        errors = [np.einsum("ij,ij->i", w, np.square(x - self.dequantize(*made))) for made in (a, b)]
        second = (errors[1] < errors[0])[:, None]
        return np.where(second, b[0], a[0]), [np.where(second, new, old) for old, new in zip(a[1], b[1])]

    def searched(self, x, w, what):
        """search, and where that is no better, quantize."""
        step, parts = SEARCH_WEIGHTS // self.block, []
        for i in range(0, len(x), step):
            x_part, w_part = x[i:i + step], w[i:i + step]
            parts.append(self.lesser(x_part, w_part, self.quantize(x_part, what), self.search(x_part, w_part, what)))
        q, scales = zip(*parts)
        return np.concatenate(q), [np.concatenate(a) for a in zip(*scales)]

    def groups16(self, q, scales):
        """Rows of a multiple of 16, columns of whole steps -> the bytes of layout groups16."""
        groups, steps = len(q) // 16, q.shape[1] // self.step
        if not self.scales:  # one column of the 16 rows after the other; of bf16 two
            columns = np.ascontiguousarray(q).view(np.uint32).reshape(groups, 16, -1)
            return np.ascontiguousarray(columns.transpose(0, 2, 1))
        out, at = np.zeros((groups, steps, 4 * self.step_bytes), np.uint32), 0

        def put(words):
            nonlocal at
            n = words.size // (groups * steps)
            out[:, :, at:at + n] = words.reshape(groups, steps, n)
            at += n

        for i, a in enumerate(scales):
            put(np.ascontiguousarray(a.reshape(groups, 16, steps, -1).transpose(0, 2, 3, 1)).view(np.uint32))
            at += 4 * self.gap if i == 0 else 0
        # Four consecutive columns of a row travel as one 32-bit word, a chunk: (group, row, step, chunk) -> (group, step, chunk, row).
        words = np.ascontiguousarray(q).view(np.uint32).reshape(groups, 16, steps, -1).transpose(0, 2, 3, 1)
        if self.bits == 8:
            put(words)
            return out
        words = np.ascontiguousarray(words)
        if self.bias:
            words = (words.view(np.uint8) + np.uint8(self.bias)).view(np.uint32)
        # Run r holds chunk 2r in its low and chunk 2r + 1 in its high nibbles; then what is above 4 bits, or fewer than 4, chunk
        # after chunk from the lowest bit of a byte.
        if self.bits >= 4:
            pairs = (words & np.uint32(0x0F0F0F0F) if self.bits > 4 else words).reshape(groups, steps, -1, 2, 16)
            put(pairs[:, :, :, 0] | pairs[:, :, :, 1] << np.uint32(4))
        if self.bits != 4:
            high, width = (words >> np.uint32(4) & np.uint32(0x0F0F0F0F), self.bits - 4) if self.bits > 4 else (words, self.bits)
            shifts = np.arange(0, 8, width, dtype=np.uint32)[:, None]
            put(np.bitwise_or.reduce(high.reshape(groups, steps, -1, 8 // width, 16) << shifts, axis=3))
        return out

    def blocks(self, q, scales):
        """Rows of whole blocks -> GGUF's blocks (n, bytes)."""
        return self.pack(q.reshape(-1, self.block), [a.reshape(-1, self.block // n) for a, (_, n) in zip(scales, self.scales)])

    def rows(self, q, scales):
        """Columns of whole steps -> the bytes of layout rows: values of a float type; the blocks of GGUF, of which q8_0 and q4_0
        have all scales of a row in front."""
        if not self.scales:
            return np.ascontiguousarray(q)
        blocks = self.blocks(q, scales).reshape(len(q), -1, self.size)
        if self.name not in ("q8_0", "q4_0"):
            return blocks
        return np.concatenate([blocks[:, :, :2].reshape(len(q), -1), blocks[:, :, 2:].reshape(len(q), -1)], axis=1)


class ScaledType(WeightType):
    """Blocks of 32 with a scale d in f16: d * (q - zero). GGUF's hold d, a bit plane (of 5 bits), then q."""

    def __init__(self, name, bits, zero=0, bias=0, n_scales=1):
        super().__init__(name, bits, BLOCK, 2 * n_scales + BLOCK * bits // 8, scales=(("<u2", BLOCK),) * n_scales, zero=zero, bias=bias)
        self.top = (1 << bits) - 1  # the largest stored q

    def unpack(self, raw):
        n = 2 * len(self.scales)
        scales = np.ascontiguousarray(raw[:, :n]).view("<u2")
        q = np.ascontiguousarray(raw[:, n:]) if self.bits == 8 else nibbles(raw[:, -16:], 16)
        if self.bits == 5:
            q |= np.unpackbits(raw[:, n:n + 4], axis=1, bitorder="little") << 4
        if self.bias:
            q -= np.uint8(self.bias)
        return q.view(np.int8), [scales[:, i:i + 1] for i in range(n // 2)]

    def pack(self, q, scales):
        q = q.view(np.uint8) + np.uint8(self.bias) if self.bias else q.view(np.uint8)
        parts = [np.ascontiguousarray(a).view(np.uint8) for a in scales]
        if self.bits == 5:
            parts.append(np.packbits(q >> 4, axis=1, bitorder="little"))
        return np.concatenate([*parts, q if self.bits == 8 else from_nibbles(q & 15, 16)], axis=1)

    def factors(self, d):
        return d.view(np.float16).astype(np.float32), None

    def quantize(self, x, what):
        """The largest magnitude becomes the most negative q: d = largest / -2^(bits - 1)."""
        d = largest(x) / np.float32(-(1 << self.bits - 1)) + np.float32(0)  # + 0: the scale of an all-zero block is 0 and not -0
        y = x * inverse_of(d)[:, None]
        y += np.float32((1 << self.bits - 1) + 0.5)
        q = np.minimum(y.astype(np.int8), self.top) - np.int8(self.bias)
        return q, [f32_to_f16(d, what)[:, None]]

    def search(self, x, w, what):
        half = 1 << self.bits - 1
        d = f32_to_f16(search_scale(transposed(x, BLOCK), transposed(w, BLOCK), -half, half - 1)[:, None], what)
        q = rounded_to(x * inverse_of(d.view(np.float16).astype(np.float32)), -half, half - 1)
        return (q + np.float32(half - self.bias)).astype(np.int8), [d]


class ByteType(ScaledType):
    """q8_0: d = max|x| / 127, q = round(x / d), halves away from zero."""
    search = None

    def quantize(self, x, what):
        d = np.abs(x).max(axis=1) / np.float32(127)
        y = x * inverse_of(d)[:, None]
        # Rounding half away from zero as C's roundf: add a half of y's sign, then cut.
        y += np.copysign(np.float32(0.5), y)
        return y.astype(np.int8), [f32_to_f16(d, what)[:, None]]


class MinimumType(ScaledType):
    """Blocks of 32 with a scale d and a minimum m in f16: d * q + m."""

    def __init__(self, name, bits):
        super().__init__(name, bits, n_scales=2)

    def factors(self, d, m):
        return d.view(np.float16).astype(np.float32), m.view(np.float16).astype(np.float32)

    def quantize(self, x, what):
        low = x.min(axis=1)
        d = (x.max(axis=1) - low) / np.float32(self.top)
        q = np.clip((x - low[:, None]) * inverse_of(d)[:, None] + np.float32(0.5), 0, self.top).astype(np.int8)
        return q, [f32_to_f16(d, what)[:, None], f32_to_f16(low, what)[:, None]]

    def search(self, x, w, what):
        scales = [f32_to_f16(a[:, None], what) for a in search_line(transposed(x, BLOCK), transposed(w, BLOCK), self.top)]
        factor, summand = self.factors(*scales)
        return rounded_to((x - summand) * inverse_of(factor), 0, self.top).astype(np.int8), scales


def rounded_scales(x, top, what):
    """x (n, m) -> d (n, 1) f16 bits and integers up to top (n, m) with d * integer close to x; top is that of the largest."""
    d = f32_to_f16(largest(x)[:, None] / np.float32(top), what)
    return d, np.rint(x * inverse_of(d.view(np.float16).astype(np.float32)))


class SuperType(WeightType):
    """q4_k and q5_k. Blocks of 256 with d and dmin in f16 and, for each 32, sc and m of 6 bits: d * sc * q - dmin * m. sc and m
    of the same weights stand side by side in one array. GGUF's blocks hold d, dmin, sc and m in 12 bytes, a bit plane (of 5 bits),
    then q."""

    def __init__(self, name, bits):
        super().__init__(name, bits, 256, 16 + 32 * bits, step=256, scales=(("<u2", 256), ("<u2", 256), ("u1", 16)))
        self.top = (1 << bits) - 1

    def unpack(self, raw):
        d = np.ascontiguousarray(raw[:, :4]).view("<u2")
        a, b, c = raw[:, 4:8], raw[:, 8:12], raw[:, 12:16]
        sc = np.concatenate([a & 63, c & 15 | a >> 6 << 4], axis=1)
        m = np.concatenate([b & 63, c >> 4 | b >> 6 << 4], axis=1)
        q = nibbles(raw[:, -128:], 32)
        if self.bits == 5:
            q |= planes(raw[:, 16:48], 1) << 4
        return q.view(np.int8), [d[:, :1], d[:, 1:], np.stack([sc, m], axis=2).reshape(len(raw), 16)]

    def pack(self, q, scales):
        q, pairs = q.view(np.uint8), scales[2].reshape(len(q), 8, 2)
        sc, m = pairs[:, :, 0], pairs[:, :, 1]
        parts = [np.ascontiguousarray(a).view(np.uint8) for a in scales[:2]]
        parts += [sc[:, :4] | sc[:, 4:] >> 4 << 6, m[:, :4] | m[:, 4:] >> 4 << 6, sc[:, 4:] & 15 | m[:, 4:] << 4]
        if self.bits == 5:
            parts.append(from_planes(q >> 4, 1))
        return np.concatenate([*parts, from_nibbles(q & 15, 32)], axis=1)

    def factors(self, d, dmin, pairs):
        pairs = pairs.reshape(*d.shape, 8, 2).astype(np.float32)
        factor, minimum = (a.view(np.float16).astype(np.float32)[:, :, None] * pairs[..., i] for i, a in enumerate((d, dmin)))
        return factor.reshape(len(d), -1), -minimum.reshape(len(d), -1)

    def quantize(self, x, what):
        parts = x.reshape(len(x), 8, 32)
        low = np.minimum(parts.min(axis=2), 0)  # m is never negative
        d, sc = rounded_scales((parts.max(axis=2) - low) / np.float32(self.top), 63, what)
        dmin, m = rounded_scales(-low, 63, what)
        scales = [d, dmin, np.clip(np.stack([sc, m], axis=2), 0, 63).astype(np.uint8).reshape(len(x), 16)]
        return self.round(x, scales), scales

    def round(self, x, scales):
        factor, summand = (a[:, :, None] for a in self.factors(*scales))
        y = (x.reshape(len(x), 8, 32) - summand) * inverse_of(factor)
        return rounded_to(y, 0, self.top).astype(np.int8).reshape(x.shape)

    def search(self, x, w, what):
        columns, weights = transposed(x, 32), transposed(w, 32)
        d, m = (a.reshape(len(x), 8) for a in search_line(columns, weights, self.top, 0))
        d, sc = rounded_scales(np.maximum(d, 0), 63, what)
        dmin, m = rounded_scales(-m, 63, what)
        pairs = np.clip(np.stack([sc, m], axis=2), 0, 63)
        scales = [d, dmin, pairs.astype(np.uint8).reshape(len(x), 16)]
        # With q, sc and m given, the best d and dmin of the 256 weights.
        q = transposed(self.round(x, scales), 32).astype(np.float32)
        wq, wx = weights * q, weights * columns
        sums = (np.einsum("ij,ij->j", wq, q), wq.sum(axis=0), weights.sum(axis=0), np.einsum("ij,ij->j", wx, q), wx.sum(axis=0))
        qq, sq, sw, xq, sx = (a.reshape(len(x), 8) for a in sums)
        sc, m = pairs[:, :, 0], pairs[:, :, 1]
        a, b, c = (sc * sc * qq).sum(axis=1), (sc * m * sq).sum(axis=1), (m * m * sw).sum(axis=1)
        e, f = (sc * xq).sum(axis=1), (m * sx).sum(axis=1)
        inverse = inverse_of(a * c - b * b)
        better = [f32_to_f16(np.where(inverse > 0, (new * inverse), old.view(np.float16)[:, 0])[:, None].astype(np.float32), what)
                  for new, old in ((c * e - b * f, d), (b * e - a * f, dmin))]
        scales = [*better, scales[2]]
        return self.round(x, scales), scales


class SixBitType(WeightType):
    """q6_k. Blocks of 256 with d in f16 and, for each 16, sc of 8 bits: d * sc * (q - 32). GGUF's blocks hold the low 4 bits of
    q, the high 2, sc, d."""

    def __init__(self, name):
        super().__init__(name, 6, 256, 210, step=256, share=16, scales=(("<u2", 256), ("i1", 16)), zero=32, gap=2)

    def unpack(self, raw):
        q = nibbles(raw[:, :128], 64)
        q |= planes(raw[:, 128:192], 2) << 4
        return q.view(np.int8), [np.ascontiguousarray(raw[:, 208:]).view("<u2"), np.ascontiguousarray(raw[:, 192:208]).view(np.int8)]

    def pack(self, q, scales):
        q, (d, sc) = q.view(np.uint8), (np.ascontiguousarray(a).view(np.uint8) for a in scales)
        return np.concatenate([from_nibbles(q & 15, 64), from_planes(q >> 4, 2), sc, d], axis=1)

    def factors(self, d, sc):
        factor = d.view(np.float16).astype(np.float32)[:, :, None] * sc.reshape(*d.shape, 16).astype(np.float32)
        return factor.reshape(len(d), -1), None

    def quantize(self, x, what):
        parts = x.reshape(-1, 16)
        d, sc = rounded_scales((largest(parts) / np.float32(-32)).reshape(len(x), 16), -128, what)
        scales = [d, np.clip(sc, -128, 127).astype(np.int8)]
        return self.round(x, scales), scales

    def round(self, x, scales):
        q = rounded_to(x.reshape(-1, 16) * inverse_of(self.factors(*scales)[0].reshape(-1, 1)), -32, 31)
        return (q + np.float32(32)).astype(np.int8).reshape(x.shape)

    def search(self, x, w, what):
        found = search_scale(transposed(x, 16), transposed(w, 16), -32, 31)
        d, sc = rounded_scales(found.reshape(len(x), 16), -128, what)
        scales = [d, np.clip(sc, -128, 127).astype(np.int8)]
        return self.round(x, scales), scales


class RowType(WeightType):
    """q2_row, q4_row and q8_row: d * q with a d in float32 for each row, repeated every 256 columns. A row holds d and then, from the
    lowest bits of a byte on, q, which has a sign where it fills a byte."""

    def __init__(self, name, bits):
        self.half = 1 << bits - 1
        super().__init__(name, bits, 256, 4 + 32 * bits, step=256, share=256, scales=(("<f4", 256),), bias=self.half if bits < 8 else 0)
        self.gguf = None

    def pack(self, q, scales):
        parts = (q.view(np.uint8) + np.uint8(self.bias)).reshape(len(q), -1, 8 // self.bits) << np.arange(0, 8, self.bits, dtype=np.uint8)
        return np.concatenate([np.ascontiguousarray(scales[0]).view(np.uint8), np.bitwise_or.reduce(parts, axis=2)], axis=1)

    def factors(self, d):
        return d, None

    def quantize(self, x, what):
        d = largest(x) / np.float32(-self.half) + np.float32(0)
        q = np.clip(np.rint(x * inverse_of(d)[:, None]), -self.half, self.half - 1)
        return q.astype(np.int8), [d[:, None]]


TYPES = (WeightType("f32", 32, 1, 4), WeightType("bf16", 16, 1, 2), ByteType("q8_0", 8), ScaledType("q4_0", 4, bias=8), MinimumType("q4_1", 4),
         ScaledType("q5_0", 5, zero=16), MinimumType("q5_1", 5), SuperType("q4_k", 4), SuperType("q5_k", 5), SixBitType("q6_k"), RowType("q2_row", 2),
         RowType("q4_row", 4), RowType("q8_row", 8))
TYPE_NAMES = tuple(t.name for t in TYPES)


def matrix_bytes(type_, layout, rows, cols):
    """Size of one stored matrix."""
    t = TYPES[type_]
    steps = round_up(cols, t.step) // t.step
    return steps * (round_up(rows, 16) * t.step_bytes if layout == GROUPS16 else rows * (t.step // t.block * t.size))


def checksum(data):
    """g4_checksum: four lanes of 64-bit words."""
    mask, mul = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def step(h, word):
        h = ((h ^ word) * mul) & mask
        return (h << 29 | h >> 35) & mask

    words = np.frombuffer(data + bytes(-len(data) % 32), "<u8").tolist()
    lanes = []
    for lane in range(4):
        h = lane + 1
        for word in words[lane::4]:
            h = ((h ^ word) * mul) & mask
            h = (h << 29 | h >> 35) & mask
        lanes.append(h)
    h = lanes[0]
    for lane in lanes[1:]:
        h = step(h, lane)
    return h ^ len(data)

# ---- Tokenizer blob -------------------------------------------------------------------------------
#
# tokenizer.c documents the blob field by field; this section builds it. Everything the encoder needs stands ready: the
# merges as a perfect hash of (left id, right id), code point -> id, the adjacent characters that some merge spans
# (between any others a text may be cut exactly), and a trie of the tokens that are matched in the text itself.

TOKENIZER_MAGIC = b"G4TOKENS"
TOKENIZER_VERSION = 1
TOKENIZER_NONE = 0xFFFFFFFF
TOKENIZER_MAX_PIECE = 255
TOKENIZER_MAX_IDS = 1 << 20
SPACE = "\u2581"  # what a vocabulary writes for a space

GGUF_NORMAL, GGUF_UNKNOWN, GGUF_CONTROL, GGUF_USER, GGUF_UNUSED = 1, 2, 3, 4, 5  # token types; 6 is a byte token


def tokenizer_blob(source, n_vocab=None):
    """The tokenizer section of a model file. Returns (blob: bytes, specials: dict of control token name -> id).

    source   a parsed tokenizer.json (dict with "model"), or GGUF metadata as a flat dict of plain Python values
             (dict with "tokenizer.ggml.tokens"; lists, strings, numbers; general.architecture if known)
    n_vocab  rows of the embedding; ids without a token get empty text. None: the highest id + 1.
    Raises ValueError for anything the engine could not reproduce exactly.
    """
    if "tokenizer.ggml.tokens" in source:
        texts, ranked, control, always, n_bytes, add_bos = _tokenizer_from_gguf(source)
    elif "model" in source:
        texts, ranked, control, always, n_bytes, add_bos = _tokenizer_from_json(source)
    else:
        raise ValueError("tokenizer: neither a tokenizer.json nor GGUF metadata with tokenizer.ggml.tokens")
    highest = max(texts, default=-1) + 1
    n_vocab = highest if n_vocab is None else n_vocab
    if not 0 < highest <= n_vocab < TOKENIZER_MAX_IDS:
        raise ValueError(f"tokenizer: {highest} token ids do not fit a vocabulary of {n_vocab}")
    blob = _tokenizer_pack(texts, ranked, control, always, n_bytes, add_bos, n_vocab)
    return blob, {texts[i]: i for i in sorted(control)}


def _tokenizer_from_json(source):
    """A tokenizer.json -> {id: text}, merges by rank, control ids, always-matched ids, byte ids, add_bos."""
    model, added = source["model"], source.get("added_tokens") or []

    def need(ok, what):
        if not ok:
            raise ValueError(f"tokenizer.json: {what}")

    def is_id(i):
        return isinstance(i, int) and not isinstance(i, bool) and 0 <= i < TOKENIZER_MAX_IDS

    need(isinstance(model, dict), "model is not an object")
    need(model.get("type", "BPE") == "BPE", f"model type {model.get('type')!r}, only BPE is supported")
    need(isinstance(model.get("vocab"), dict) and all(map(is_id, model["vocab"].values())), "model.vocab does not give texts their ids")
    need(isinstance(model.get("merges"), list), "model.merges is not a list")
    need(isinstance(added, list) and all(isinstance(t, dict) and isinstance(t.get("content"), str) and is_id(t.get("id")) for t in added),
         "added_tokens is not a list of tokens with content and id")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        need(not model.get(key), f"model.{key} = {model.get(key)!r} is not supported")
    need(model.get("byte_fallback"), "model.byte_fallback must be true")
    normalizer = source.get("normalizer")
    if isinstance(normalizer, dict) and normalizer.get("type") == "Sequence":
        steps = normalizer.get("normalizers")
        normalizer = steps[0] if isinstance(steps, list) and len(steps) == 1 else None
    need(normalizer == {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
         "the normalizer must only replace a space by U+2581")
    # Splitting at " " never finds one, as the normalizer has replaced them all; any other pre-tokenizer would change
    # ids.
    split = source.get("pre_tokenizer")
    need(split is None or (isinstance(split, dict) and split.get("type") == "Split" and split.get("pattern") == {"String": " "}),
         "the pre_tokenizer is not supported")

    vocab = dict(model["vocab"])
    texts = {i: text for text, i in vocab.items()}
    need(len(texts) == len(vocab), "two tokens of the vocabulary share an id")
    control, always = set(), set()
    for token in added:
        text, i = token["content"], token["id"]
        need(text and not any(token.get(k) for k in ("lstrip", "rstrip", "single_word")),
             f"added token {text!r}: lstrip, rstrip and single_word are not supported")
        need(not token.get("normalized") or not (" " in text or SPACE in text),
             f"added token {text!r}: normalized, with a space")
        need(texts.get(i, text) == text and vocab.get(text, i) == i,
             f"added token {text!r}: id {i} contradicts the vocabulary")
        texts[i], vocab[text] = text, i
        (control if token.get("special") else always).add(i)

    pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    byte_ids = [vocab.get(f"<0x{b:02X}>") for b in range(256)]
    # A tokenizer.json does not say it; every model of this family begins with <bos>.
    return texts, _tokenizer_pair_ids(pairs, vocab), control, always, byte_ids, True


def _tokenizer_from_gguf(source):
    """GGUF metadata -> the same. Gemma 4 files list merges; Gemma 3 files (SentencePiece BPE) list scores. Where a file has both,
    as ollama writes them, merges are what the tokenizer was trained with, and the scores only the ids.

    Gemma 3 differs from Gemma 4 in what is matched in the text itself, whoever wrote it: besides control tokens it has
    user-defined ones (HTML tags, runs of line feeds and tabs, [multimodal], the image markers), each cut out before
    BPE, the longest at the leftmost place. Runs of 2 to 31 spaces are user-defined too; they are reached by merges
    ahead of all others, longest left part first, which gives what cutting them out gives and treats a literal U+2581 as
    a space, as Gemma 4 does. (transformers' GGUF loader ranks all merges by id instead: it cuts 32 spaces into 16 + 16,
    SentencePiece into 31 + 1. We follow SentencePiece.) In a Gemma 4 file, user-defined marks only which markers stay
    visible: all are control tokens.
    """
    def listed(key, kind):
        value = source.get("tokenizer.ggml." + key)
        if not isinstance(value, list) or not all(isinstance(v, kind) for v in value):
            raise ValueError(f"tokenizer: tokenizer.ggml.{key} is not a list of {'texts' if kind is str else 'numbers'}")
        return list(value)

    tokens, kinds = listed("tokens", str), listed("token_type", int)
    model = source.get("tokenizer.ggml.model")
    if len(kinds) != len(tokens):
        raise ValueError(f"tokenizer: {len(tokens)} tokens but {len(kinds)} token types")
    if source.get("tokenizer.ggml.add_space_prefix"):
        raise ValueError("tokenizer: add_space_prefix is not supported")
    if max(map(len, tokens), default=0) > TOKENIZER_MAX_PIECE:
        raise ValueError(f"tokenizer: a token has {max(map(len, tokens))} characters, more than {TOKENIZER_MAX_PIECE}")
    if model == "llama" and "tokenizer.ggml.merges" in source and source.get("general.architecture") == GEMMA4:
        model = "gemma4"
    spaces = []
    if model == "llama" and "tokenizer.ggml.merges" not in source:
        spaces = [i for i, t in enumerate(tokens) if kinds[i] == GGUF_USER and len(t) > 1 and not t.strip(" ")]
    for i in spaces:
        tokens[i] = SPACE * len(tokens[i])
    vocab = {text: i for i, text in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise ValueError("tokenizer: two tokens have the same text")
    control = {i for i, k in enumerate(kinds) if k in (GGUF_CONTROL, GGUF_UNKNOWN)}
    always = {i for i, k in enumerate(kinds) if k == GGUF_USER} - set(spaces)
    byte_ids = [vocab.get(f"<0x{b:02X}>") for b in range(256)]
    if model == "gemma4":
        pairs = [m.split(" ") for m in listed("merges", str)]
        ranked, control, always = _tokenizer_pair_ids(pairs, vocab), control | always, set()
    elif model == "llama" and "tokenizer.ggml.merges" in source:
        ranked = _tokenizer_pair_ids([m.split(" ") for m in listed("merges", str)], vocab)
        # What fills a vocabulary up to the rows of the embedding is marked user-defined there, and stands in no text.
        always -= {i for i in always if re.fullmatch(r"\[PAD\d+\]", tokens[i])}
    elif model == "llama":
        scores = listed("scores", (int, float))
        if len(scores) != len(tokens) or not all(map(math.isfinite, scores)):
            raise ValueError(f"tokenizer: {len(tokens)} tokens but {len(scores)} scores, or some that are no numbers")
        ranked = _tokenizer_pairs_from_scores(tokens, kinds, vocab, scores, set(spaces))
    else:
        raise ValueError(f"tokenizer: tokenizer.ggml.model is {model!r}; gemma4 and llama (Gemma 3) are supported")
    add_bos = bool(source.get("tokenizer.ggml.add_bos_token", True))
    return dict(enumerate(tokens)), ranked, control, always, byte_ids, add_bos


def _tokenizer_pair_ids(pairs, vocab):
    """Merges as text -> (n, 3) left, right, joined ids in order of rank."""
    if not all(isinstance(p, list) and len(p) == 2 and isinstance(p[0], str) and isinstance(p[1], str) for p in pairs):
        raise ValueError("tokenizer: a merge is not a pair of texts")
    try:
        return np.array([(vocab[l], vocab[r], vocab[l + r]) for l, r in pairs], dtype=np.int64).reshape(-1, 3)
    except KeyError as e:
        raise ValueError(f"tokenizer: a merge uses {e.args[0]!r}, which is not in the vocabulary") from None


def _tokenizer_pairs_from_scores(tokens, kinds, vocab, scores, spaces):
    """Every (left, right) whose join is a token; best score first, then the longer left part, then the longer right
    part, then by ids: the order in which Hugging Face writes the merges of a SentencePiece model."""
    normal = {t: i for t, i in vocab.items() if kinds[i] in (GGUF_NORMAL, GGUF_UNUSED) or i in spaces}
    found = []
    for text, i in normal.items():
        score = 1.0 if i in spaces else scores[i]  # any number above the others, which are at most 0
        local = []
        for cut in range(1, len(text)):
            l, r = normal.get(text[:cut]), normal.get(text[cut:])
            if l is not None and r is not None:
                local.append((-score, -cut, cut - len(text), l, r, i))
        found += sorted(local, key=lambda x: x[3:5])
    found.sort(key=lambda x: x[:3])
    return np.array([x[3:] for x in found], dtype=np.int64).reshape(-1, 3)


def _tokenizer_mix(key):
    """64-bit mix of a merge key, as g4_tok_find in tokenizer.c."""
    x = key * np.uint64(0x9E3779B97F4A7C15)
    x ^= x >> np.uint64(32)
    x *= np.uint64(0xD6E8FEB86659FD93)
    return x ^ (x >> np.uint64(29))


def _tokenizer_perfect_hash(keys):
    """(displacement of each bucket, slot of each key, number of slots): no two keys share a slot.

    Buckets of about four keys, the fullest first; each tries displacements until all its keys fall on free slots. All
    buckets of one size try together, and of those that want the same slot one wins.
    """
    n = len(keys)
    n_slots, n_buckets = n + n // 16 + 1, n // 4 + 1
    mixed = _tokenizer_mix(keys)
    bucket = ((mixed & np.uint64(0xFFFFFFFF)) * np.uint64(n_buckets)) >> np.uint64(32)
    high = (mixed >> np.uint64(32)).astype(np.uint32)
    order = np.argsort(bucket, kind="stable")
    counts = np.bincount(bucket.astype(np.int64), minlength=n_buckets)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    displacement = np.zeros(n_buckets, np.uint16)
    slot = np.zeros(n, np.int64)
    taken = np.zeros(n_slots, bool)
    owner = np.full(n_slots, -1, np.int64)
    for size in range(int(counts.max(initial=0)), 0, -1):
        left = np.flatnonzero(counts == size)
        for d in range(0x10000):
            if not len(left):
                break
            members = order[starts[left][:, None] + np.arange(size)]
            h = (high[members] ^ np.uint32(d * 0x85EBCA6B & 0xFFFFFFFF)) * np.uint32(0x9E3779B1)
            at = ((h.astype(np.uint64) * np.uint64(n_slots)) >> np.uint64(32)).astype(np.int64)
            ok = ~taken[at].any(axis=1)
            if size > 1:
                ok &= (np.diff(np.sort(at, axis=1), axis=1) > 0).all(axis=1)
            ids = np.flatnonzero(ok)
            owner[at[ids].ravel()] = np.repeat(ids, size)
            ids = ids[(owner[at[ids]] == ids[:, None]).all(axis=1)]
            taken[at[ids]] = True
            slot[members[ids]] = at[ids]
            displacement[left[ids]] = d
            keep = np.ones(len(left), bool)
            keep[ids] = False
            left = left[keep]
        if len(left):
            raise ValueError("tokenizer: no perfect hash found for the merges")
    return displacement, slot, n_slots


def _tokenizer_trie(entries):
    """Tokens matched in text, [(bytes, id, always)] -> nodes, breadth first, children of a node adjacent and sorted."""
    children, ends = [{}], [(TOKENIZER_NONE, 0)]
    for data, i, always in entries:
        node = 0
        for b in data:
            if b not in children[node]:
                children[node][b] = len(children)
                children.append({})
                ends.append((TOKENIZER_NONE, 0))
            node = children[node][b]
        ends[node] = (i, 2 if always else 1)
    fields = [("first", "<u4"), ("id", "<u4"), ("n", "<u2"), ("byte", "u1"), ("kind", "u1")]
    nodes = np.zeros(len(children), np.dtype(fields))
    queue = [(0, 0)]
    for place, (node, byte) in enumerate(queue):  # grows while it is read
        nodes[place] = (len(queue) if children[node] else 0, ends[node][0], len(children[node]), byte, ends[node][1])
        queue += [(child, b) for b, child in sorted(children[node].items())]
    return nodes


def _tokenizer_pack(texts, ranked, control, always, byte_ids, add_bos, n_vocab):
    """The blob. texts: id -> text; ranked: (n, 3) ids by rank; byte_ids: 256 ids."""
    missing = [b for b, i in enumerate(byte_ids) if i is None]
    if missing:
        raise ValueError(f"tokenizer: the vocabulary has no byte token <0x{missing[0]:02X}>")
    byte_set = set(byte_ids)
    empty = [i for i in control | always if not texts[i]]
    if empty:
        raise ValueError(f"tokenizer: token {min(empty)} is matched in text, but has none")

    # What a token writes when decoded: a control token its name, a byte token that byte, any other its text with
    # spaces.
    pieces = [b""] * n_vocab
    for i, text in texts.items():
        pieces[i] = text.encode() if i in control or i in always else text.replace(SPACE, " ").encode()
    for b, i in enumerate(byte_ids):
        pieces[i] = bytes([b])
    longest = max(range(n_vocab), key=lambda i: len(pieces[i]))
    if len(pieces[longest]) > TOKENIZER_MAX_PIECE:
        size = len(pieces[longest])
        raise ValueError(f"tokenizer: token {longest} has {size} bytes, more than {TOKENIZER_MAX_PIECE}")
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in pieces])]).astype("<u4")
    is_control = np.zeros((n_vocab + 31) // 32 * 32, np.uint8)
    is_control[sorted(control)] = 1

    # Code point -> id by pages of 64. A byte token or a token that is only matched as a whole is no character.
    whole = byte_set | control | always
    chars = {ord(t): i for i, t in texts.items() if len(t) == 1 and i not in whole}
    pages = np.zeros(0x110000 >> 6, "<u2")
    numbers = {page: n + 1 for n, page in enumerate(sorted({c >> 6 for c in chars}))}  # page 0 is empty
    table = np.full((len(numbers) + 1, 64), TOKENIZER_NONE, "<u4")
    for page, n in numbers.items():
        pages[page] = n
    for c, i in chars.items():
        table[numbers[c >> 6], c & 63] = i
    if 0x2581 in chars:  # a space reads as U+2581
        if 0 not in numbers:
            raise ValueError("tokenizer: the vocabulary has no ASCII characters")
        table[numbers[0], 0x20] = chars[0x2581]

    # Merges. Of a pair listed twice the later counts, as in the reference. None may touch a byte token.
    if len(ranked) >= (1 << 24) - 1:
        raise ValueError(f"tokenizer: {len(ranked)} merges are too many")
    rank = np.arange(len(ranked), dtype=np.uint64)
    is_byte = np.zeros(n_vocab, bool)
    is_byte[sorted(byte_set)] = True
    if len(ranked) and is_byte[ranked].any():
        raise ValueError(f"tokenizer: merge {int(np.flatnonzero(is_byte[ranked].any(axis=1))[0])} touches a byte token")
    key = (ranked[:, 0].astype(np.uint64) << np.uint64(20)) | ranked[:, 1].astype(np.uint64)
    last = len(key) - 1 - np.unique(key[::-1], return_index=True)[1]
    displacement, slot, n_slots = _tokenizer_perfect_hash(key[last])
    slots = np.full(n_slots, 0xFFFFFFFFFFFFFFFF, np.uint64)
    slots[slot] = (key[last] << np.uint64(24)) | rank[last]

    # Adjacent characters inside any joined token. ASCII pairs exactly, others as bits of a hash; U+2581 stands as a
    # space.
    reached = [texts[i] for i in np.unique(ranked[:, 2]).tolist()]
    joined = "\0".join(t for t in reached if "\0" not in t).replace(SPACE, " ")
    points = np.frombuffer(joined.encode("utf-32-le"), "<u4")
    a, b = points[:-1], points[1:]
    inside = (a != 0) & (b != 0)
    both = np.unique((a[inside].astype(np.uint64) << np.uint64(32)) | b[inside])
    a, b = (both >> np.uint64(32)).astype(np.uint32), both.astype(np.uint32)
    ascii_pairs = np.zeros((128, 128), np.uint8)
    small = (a < 128) & (b < 128)
    ascii_pairs[a[small], b[small]] = 1
    if any("\0" in t for t in reached):
        raise ValueError("tokenizer: a merge joins text with a NUL in it")
    bits = max(10, int(8 * (~small).sum()).bit_length())
    h = a[~small] * np.uint32(0x9E3779B1) + b[~small] * np.uint32(0x85EBCA6B)
    h = ((h ^ (h >> np.uint32(15))) * np.uint32(0xC2B2AE35)) >> np.uint32(32 - bits)
    pair_bits = np.zeros(1 << bits, np.uint8)
    pair_bits[h] = 1

    nodes = _tokenizer_trie([(texts[i].encode(), i, i in always) for i in sorted(control | always)])
    first = np.zeros(256, np.uint8)  # bit 0: a control token begins so, bit 1: a token that is always matched does
    for i in control | always:
        first[texts[i].encode()[0]] |= 2 if i in always else 1

    pack = lambda x: np.packbits(x, bitorder="little").tobytes()
    parts = [offsets.tobytes(), b"".join(pieces), pack(is_control), pages.tobytes(), table.tobytes(),
             np.array(byte_ids, "<u4").tobytes(), displacement.astype("<u2").tobytes(), slots.astype("<u8").tobytes(),
             ranked[:, 2].astype("<u4").tobytes(), pack(ascii_pairs.ravel()), pack(pair_bits), nodes.tobytes(),
             first.tobytes()]
    header_size = 16 + 4 * 12 + 8 * len(parts)
    at = header_size = (header_size + 63) // 64 * 64
    where, body = [], b""
    for part in parts:
        where.append((at, len(part)))
        padding = -len(part) % 64
        body += part + bytes(padding)
        at += len(part) + padding
    depth = max((len(texts[i].encode()) for i in control | always), default=0)
    header = struct.pack("<8sII12I", TOKENIZER_MAGIC, TOKENIZER_VERSION, at, n_vocab, 1 if add_bos else 0, len(ranked),
                         n_slots, len(displacement), len(table), bits, len(nodes), depth, len(parts), 0, 0)
    header += b"".join(struct.pack("<II", *w) for w in where)
    return header + bytes(header_size - len(header)) + body

# ---- Sources: safetensors, GGUF, hub --------------------------------------------------------------

GGUF_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K",
              14: "Q6_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
              29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4"}
# Block formats: (weights, bytes) of a block. The gguf package takes those apart that have no type here.
GGUF_BLOCKS = {**{t.gguf: (t.block, t.size) for t in TYPES if t.scales and t.gguf}, "Q2_K": (256, 84), "Q3_K": (256, 110), "IQ2_XXS": (256, 66),
               "IQ2_XS": (256, 74), "IQ3_XXS": (256, 98), "IQ1_S": (256, 50), "IQ4_NL": (32, 18), "IQ3_S": (256, 110), "IQ2_S": (256, 82),
               "IQ4_XS": (256, 136), "IQ1_M": (256, 56), "TQ1_0": (256, 54), "TQ2_0": (256, 66), "MXFP4": (32, 17), "NVFP4": (64, 36)}
# What those become that have no type here: the smallest one whose rounding adds little to their own (docs/formats.md).
GGUF_BECOMES = {"TQ1_0": Q4_0, "TQ2_0": Q4_0, "IQ1_S": Q4_0, "Q3_K": Q4_0, "IQ1_M": Q4_K, "IQ2_XXS": Q4_K, "IQ2_XS": Q4_K, "IQ2_S": Q4_K,
                "Q2_K": Q4_K, "IQ3_XXS": Q4_K, "IQ3_S": Q4_K, "IQ4_NL": Q5_K, "IQ4_XS": Q5_K, "NVFP4": Q5_K, "MXFP4": Q5_0}
PADDED = {Q4_K: Q5_0, Q5_K: Q5_1, Q6_K: Q8_0}  # what a type becomes whose columns would be padded by more than 5 %
GGUF_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
GGUF_STRING, GGUF_ARRAY = 8, 9


class File:
    """A file of the source, read at any place by any thread. It is not mapped: one that is cut short meanwhile is an error in
    words then, and no signal."""

    PIECE = 16 << 20

    def __init__(self, path):
        self.path = path
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ExportError(f"{path}: not a regular file")
        self.raw = open(path, "rb", buffering=0)
        self.size = os.fstat(self.raw.fileno()).st_size
        if self.size == 0:
            raise ExportError(f"{path}: empty file")

    def read(self, at, n):
        parts = [b""]
        while n > 0:
            parts.append(os.pread(self.raw.fileno(), min(n, 1 << 30), at))
            at, n = at + len(parts[-1]), n - len(parts[-1])
            if not parts[-1]:
                raise ExportError(f"{self.path}: ends at byte {at}, where {n} more are needed: cut short?")
        return parts[-1] if len(parts) == 2 else b"".join(parts)

    def pieces(self, begin=0, end=None):
        """Its bytes from begin to end, one piece after the other."""
        end = self.size if end is None else end
        for at in range(begin, end, self.PIECE):
            yield self.read(at, min(self.PIECE, end - at))

    def text(self):
        """All of it as text; settings and tokenizers have a few megabytes."""
        if self.size > 1 << 28:
            raise ExportError(f"{self.path}: {self.size} bytes are too many for a file of settings")
        try:
            return str(self.read(0, self.size), "utf-8")
        except UnicodeDecodeError as e:
            raise ExportError(f"{self.path}: not UTF-8 at byte {e.start}") from None

    def json(self):
        """Its JSON object."""
        try:
            value = json.loads(self.text())
        except RecursionError:
            raise ExportError(f"{self.path}: not JSON: nested too deeply") from None
        except ValueError as e:
            raise ExportError(f"{self.path}: not JSON: {e}") from None
        if not isinstance(value, dict):
            raise ExportError(f"{self.path}: not a JSON object")
        return value


def mxfp4_as_q5_0(raw):
    """GGUF's MXFP4, the exponent of a power of two and 32 values of 4 bits: multiples of its half up to 12, so that q5_0 holds
    them. Powers that f16 does not hold become 0 or infinity."""
    q = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.int8)[nibbles(raw[:, 1:], 16)]
    return q + np.int8(16), [np.ldexp(np.float32(1), raw[:, :1].astype(np.int32) - 128).astype(np.float16).view(np.uint16)]


def ternary_as_q4_0(kind):
    """TQ1_0 and TQ2_0: 256 times -d, 0 or d."""
    def unpack(raw):
        d = np.ascontiguousarray(raw[:, -2:]).view("<u2")
        q = gguf_dequantize(kind, raw) * inverse_of(d.view(np.float16).astype(np.float32))
        return np.rint(q).astype(np.int8), [np.repeat(d, 256 // BLOCK, axis=1)]
    return unpack


# Block formats that are taken apart without loss: the type that holds them, and how.
UNPACK = {**{t.gguf: (t, t.unpack) for t in TYPES if t.scales and t.gguf}, "MXFP4": (TYPES[Q5_0], mxfp4_as_q5_0),
          **{kind: (TYPES[Q4_0], ternary_as_q4_0(kind)) for kind in ("TQ1_0", "TQ2_0")}}


class Numbers:
    """n numbers of a file as an array that is read where it is asked for."""

    PIECE = 8 << 20

    def __init__(self, file, at, n, dtype):
        self.file, self.at, self.n, self.dtype = file, at, n, dtype

    def __len__(self):
        return self.n

    def __getitem__(self, part):
        a, b, _ = part.indices(self.n)
        return np.frombuffer(self.file.read(self.at + a * self.dtype.itemsize, max(b - a, 0) * self.dtype.itemsize), self.dtype)


class Stored:
    """A tensor of the source, read a few rows at a time. Rows are those of the matrix (product of all but the last dimension, last)."""

    def __init__(self, name, shape, dtype, data, add=0.0):
        self.name, self.shape, self.dtype, self.data, self.add = name, tuple(shape), dtype, data, add
        self.cols = self.shape[-1] if self.shape else 1
        self.rows = math.prod(self.shape[:-1])
        self.where = f"{data.file.path}: tensor {name}" if isinstance(data, Numbers) else name  # for messages

    @staticmethod
    def of(name, array):
        """A tensor computed here."""
        array = np.ascontiguousarray(array, np.float32)
        return Stored(name, array.shape, "F32", array.reshape(-1))

    def f32(self, r0=0, r1=None):
        """Rows r0..r1 as float32 (r1 - r0, cols)."""
        r1 = self.rows if r1 is None else r1
        if self.dtype in UNPACK:
            t = UNPACK[self.dtype][0]
            x = t.dequantize(*self.kept(TYPES.index(t), r0, r1))
        elif self.dtype in GGUF_BLOCKS:
            x = gguf_dequantize(self.dtype, self.blocks(r0, r1).reshape(r1 - r0, -1)).reshape(r1 - r0, self.cols)
        else:
            x = self.plain(r0 * self.cols, r1 * self.cols).reshape(r1 - r0, self.cols)
        if not np.isfinite(x).all():
            raise ExportError(f"{self.where}: holds a NaN or an infinity")
        return x + np.float32(self.add) if self.add else x

    def raw(self, r0=0, r1=None):
        """Rows r0..r1 as they are stored (r1 - r0, cols)."""
        r1 = self.rows if r1 is None else r1
        return self.data[r0 * self.cols:r1 * self.cols].reshape(r1 - r0, self.cols)

    def plain(self, a, b):
        """Elements a..b of a type without blocks, as float32, also infinities."""
        raw = self.data[a:b]
        return bf16_to_f32(raw) if self.dtype == "BF16" else raw.astype(np.float32)

    def blocks(self, r0, r1):
        """The blocks (n, bytes) of rows r0..r1 of a block format."""
        size, n_bytes = GGUF_BLOCKS[self.dtype]
        per_row = self.cols // size * n_bytes
        return self.data[r0 * per_row:r1 * per_row].reshape(-1, n_bytes)

    def kept(self, type_, r0, r1):
        """Rows of a GGUF tensor whose blocks that type holds, untouched: q (n, cols) and scales. Else None."""
        t, (own, unpack) = TYPES[type_], UNPACK.get(self.dtype, (TYPES[F32], None))
        if not t.holds(own):
            return None
        q, scales = unpack(self.blocks(r0, r1))
        if any((a & 0x7C00 == 0x7C00).any() for a in scales if a.dtype == np.uint16):
            raise ExportError(f"{self.where}: holds a NaN or an infinity")
        if t.zero != own.zero:
            q += np.int8(t.zero - own.zero)
        return q.reshape(r1 - r0, self.cols), [a.reshape(r1 - r0, -1) for a in scales]

    def kept_bf16(self, type_, r0, r1):
        """The same with scales in bf16; None: it has none that are to be kept so."""
        return None

    def is_exact(self, type_):
        """Does that type, with the scales that kept() gives, hold its values as they are?"""
        return self.dtype in UNPACK and TYPES[type_].holds(UNPACK[self.dtype][0])

    def repeated(self, n, times):
        """n heads of rows, each so many times: what a grouped attention reads of its keys or values."""
        parts = [self.f32(i * self.rows // n, (i + 1) * self.rows // n) for i in range(n)]
        out = Stored.of(self.name, np.concatenate([part for part in parts for _ in range(times)]))
        out.rounded = self.rounded  # still on the lattice, if these were
        return out

    def rounded(self, v):
        """v as this tensor's type stores it."""
        if self.dtype == "BF16":
            return bf16_to_f32(f32_to_bf16(v))
        return v.astype(np.float16).astype(np.float32) if self.dtype == "F16" else v


class Scaled(Stored):
    """A GGUF's tensor whose matrices, one or a stack of them, have a factor each in a tensor beside it, as NVFP4's do."""

    def __init__(self, t, factors):
        super().__init__(t.name, t.shape, t.dtype, t.data)
        self.unscaled, self.factors = t, factors

    def each(self, r0, r1):
        """The factors of rows r0..r1 (r1 - r0, 1)."""
        return self.factors[np.arange(r0, r1) * len(self.factors) // self.rows][:, None]

    def f32(self, r0=0, r1=None):
        r1 = self.rows if r1 is None else r1
        x = self.unscaled.f32(r0, r1) * self.each(r0, r1)
        if not np.isfinite(x).all():
            raise ExportError(f"{self.where}: holds a NaN or an infinity")
        return x

    def kept(self, type_, r0, r1):
        made = self.unscaled.kept(type_, r0, r1)
        if made is None:
            return None
        scales = [f32_to_f16(a.view(np.float16) * self.each(r0, r1), self.where) if a.dtype == np.uint16 else a for a in made[1]]
        return made[0], scales

    def is_exact(self, type_):
        return False


class Source:
    """What a checkpoint offers: config (as Hugging Face writes it), tensors, tokenizer, generation settings, chat template."""

    def __init__(self, path):
        self.path = path
        self.files = []             # File: all that was read
        self.config, self.generation = {}, {}
        self.tokenizer = None       # argument of tokenizer_blob
        self.image_tokens = 280     # soft tokens of a picture when nothing else is asked for
        self.template = None        # text of the chat template; None: a base model
        self.tensors, self.used = {}, set()
        self.ignored = []           # (pattern, why): tensors that are left out on purpose
        self.is_gguf = False
        self.towers = None          # (metadata as Fields, tensors) of a GGUF's towers
        self.scales_are_softplus = False  # the audio tower's per_dim_scale, in a GGUF
        self.name = None            # as the checkpoint calls itself

    def open(self, path):
        """A file of the source."""
        try:
            self.files.append(File(path))
        except OSError as e:
            raise ExportError(f"{path}: {e.strerror}") from None
        except ValueError:
            raise ExportError(f"{path}: no file can have that name") from None
        return self.files[-1]

    def sha256(self, stop):
        """Of the one file, so that it is what is published of it; of several, that of what sha256sum prints of them in the order
        of their names. Until stop is set."""
        lines = []
        for file in self.files:
            digest = hashlib.sha256()
            for piece in file.pieces():
                if stop.is_set():
                    return ""
                digest.update(piece)
            lines.append((os.path.basename(file.path), digest.hexdigest()))
        if len(lines) == 1:
            return lines[0][1]
        text = "".join(f"{digest}  {name}\n" for name, digest in sorted(lines))
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()

    def add(self, name, tensor):
        """Take in a tensor under its canonical name."""
        if name in self.tensors:
            raise ExportError(f"{self.path}: tensors {self.tensors[name].name} and {tensor.name} are the same")
        self.tensors[name] = tensor

    def take(self, name, shape):
        """The tensor of that canonical name, marked as used."""
        t = self.tensors.get(name)
        if t is None:
            raise ExportError(f"{self.path}: tensor {gguf_name(name) if self.is_gguf else name} is missing")
        t = t.sized(tuple(shape)) if isinstance(t, Unsized) else t
        if t.shape != tuple(shape):
            where = t.where if isinstance(t, Packed) else f"{self.path}: tensor {t.name}"
            raise ExportError(f"{where} has shape {t.shape}, expected {tuple(shape)}")
        self.used.add(name)
        return t

    def has(self, name):
        return name in self.tensors

    def is_mobile(self):
        """Is it of transformers' quantizer `gemma`, whose matrices of few bits are trained so and whose others are left as they are?"""
        return quantised_kind(self.config) == QUANTISED["gemma"]

    def has_static_scales(self):
        """Does its reference round activations by scales that it holds?"""
        return self.is_mobile() and any(name.endswith("put_activation_scale") for name in self.tensors)

    def static_scale(self, name):
        """The scale of that canonical name; 0, which rounds nothing, if there is none."""
        t = self.tensors.get(name)
        if t is None:
            return 0.0
        if math.prod(t.shape) != 1 or t.dtype not in SAFETENSORS_TYPES:
            raise ExportError(f"{t.where} has shape {t.shape} in {t.dtype}, expected one number")
        self.used.add(name)
        scale = float(t.f32().reshape(-1)[0])
        if not 0 <= scale < math.inf:
            raise ExportError(f"{t.where} is {scale}, no scale")
        return scale

    def ignore(self, pattern, why):
        """Tensors whose canonical name matches the whole regular expression are not converted."""
        self.ignored.append((re.compile(pattern), why))

    def check_all_used(self):
        """Every tensor is used or ignored for a stated reason; returns {reason: count}."""
        reasons = {}
        for name, t in self.tensors.items():
            if name in self.used:
                continue
            for pattern, why in self.ignored:
                if pattern.fullmatch(name):
                    reasons[why] = reasons.get(why, 0) + 1
                    break
            else:
                raise ExportError(f"{self.path}: unknown tensor {t.name} {t.shape}: no Gemma that this program knows has it, and leaving it out "
                                  "could make another model of it: convert another file, or with a newer export.py")
        return reasons


# Types of safetensors that are weights, and the others, which packed checkpoints consist of.
SAFETENSORS_TYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
SAFETENSORS_OTHERS = {name: np.dtype(raw) for name, raw in (
    ("BOOL", "u1"), ("U8", "u1"), ("I8", "i1"), ("F8_E4M3", "u1"), ("F8_E5M2", "u1"), ("F8_E8M0", "u1"), ("I16", "<i2"), ("U16", "<u2"),
    ("I32", "<i4"), ("U32", "<u4"), ("I64", "<i8"), ("U64", "<u8"), ("F64", "<f8"))}
SAFETENSORS_HEADER = 100_000_000  # bytes, as the format limits it
MAX_DIMENSIONS = 8


def unique_keys(pairs):
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a name stands there twice")
    return out


def read_safetensors(file, about=None):
    """{name: Stored} of one file: 8 bytes header length, JSON header, data that the tensors fill without a gap. about: a dict that gets
    the texts that describe the file."""
    path = file.path
    size = int.from_bytes(file.read(0, 8), "little") if file.size >= 8 else 0
    if not 2 <= size <= min(file.size - 8, SAFETENSORS_HEADER):
        raise ExportError(f"{path}: not a safetensors file, or cut short: a header of {size} bytes in a file of {file.size}")
    try:
        header = json.loads(str(file.read(8, size), "utf-8"), object_pairs_hook=unique_keys)
        if not isinstance(header, dict):
            raise ValueError("it is not an object")
    except (ValueError, RecursionError) as e:
        raise ExportError(f"{path}: not a safetensors file: its header is not valid: {e}") from None
    texts = header.pop("__metadata__", None)
    if about is not None and isinstance(texts, dict):
        about.update(texts)
    out, places = {}, []
    for name, entry in header.items():
        if not isinstance(entry, dict):
            raise ExportError(f"{path}: tensor {name} is described by {shown(entry)}, expected an object")
        e = Fields(entry, f"{path}: tensor {name}")
        dtype = e.text("dtype")
        of = {**SAFETENSORS_TYPES, **SAFETENSORS_OTHERS}.get(dtype)
        if of is None:
            e.refuse("dtype", dtype, "a type of safetensors")
        if len(e.list("shape")) > MAX_DIMENSIONS:
            e.refuse("shape", e.list("shape"), f"at most {MAX_DIMENSIONS} dimensions")
        shape = [e.checked_count("shape", n, low=1, high=file.size) for n in e.list("shape")]
        begin, end = (e.checked_count("data_offsets", n, high=1 << 62) for n in e.list("data_offsets", 2))
        if end - begin != math.prod(shape) * of.itemsize:
            raise ExportError(f"{path}: tensor {name} of shape {tuple(shape)} in {dtype} has {math.prod(shape) * of.itemsize} bytes, its "
                              f"data_offsets hold {end - begin}")
        places.append((begin, end, name))
        out[name] = Stored(name, shape, dtype, Numbers(file, 8 + size + begin, math.prod(shape), of))
    at, before = 0, "the header"
    for begin, end, name in sorted(places):
        if begin != at:
            raise ExportError(f"{path}: tensor {name} begins at byte {begin} of the data, where {before} ends at {at}")
        at, before = end, f"tensor {name}"
    if 8 + size + at != file.size:
        raise ExportError(f"{path}: {before} ends at byte {8 + size + at} of {file.size}" + (": cut short?" if 8 + size + at > file.size else ""))
    return out


NO_STATISTICS = "expected what gemma4 calibrate writes, or an imatrix of llama.cpp in GGUF"
# What llama.cpp's imatrix measures -> the names of the model file; gate and up read the same.
IMATRIX_NAMES = {"token_embd.weight": "embed", "output.weight": "head", "per_layer_model_proj.weight": "ple.proj"}
IMATRIX_LAYER_NAMES = {
    "attn_q.weight": "q", "attn_k.weight": "k", "attn_v.weight": "v", "attn_output.weight": "o", "ffn_gate.weight": "gate_up",
    "ffn_down.weight": "down", "ffn_gate_exps.weight": "experts.gate_up", "ffn_gate_up_exps.weight": "experts.gate_up",
    "ffn_down_exps.weight": "experts.down", "inp_gate.weight": "ple_gate", "proj.weight": "ple_proj"}


def read_imatrix(file):
    """{name in the model file: (means, counts)} of an imatrix in GGUF: NAME.in_sum2 (matrices, columns) and NAME.counts (matrices, 1)."""
    meta, tensors = read_gguf(file)
    if meta.get("general.type") != "imatrix":
        raise ExportError(f"{file.path}: general.type is {shown(meta.get('general.type'))}: {NO_STATISTICS}")
    out = {}
    for name, t in tensors.items():
        stem, _, kind = name.rpartition(".")
        layer = re.fullmatch(r"blk\.(\d+)\.(.*)", stem)
        ours = IMATRIX_LAYER_NAMES.get(layer[2]) if layer else IMATRIX_NAMES.get(stem)
        if kind != "in_sum2" or ours is None:
            continue
        counts = tensors.get(stem + ".counts")
        if counts is None or counts.dtype != "F32" or t.dtype != "F32" or counts.rows * counts.cols != t.rows:
            raise ExportError(f"{file.path}: tensor {name} of shape {t.shape} is not F32 with {t.rows} counts beside it")
        sums, counts = t.data[:].reshape(t.rows, t.cols), counts.data[:]
        out[f"l.{layer[1]}.{ours}" if layer else ours] = sums * inverse_of(counts)[:, None], counts
    if "head" in out:
        out.setdefault("embed", out["head"])  # a tied head
    return out


class Statistics:
    """What `gemma4 calibrate` or llama.cpp's imatrix measured: the mean square of each input column, by the names of the model file."""

    FORMAT = "gemma4 statistics 1"

    def __init__(self, path):
        self.path, self.columns = path, {}  # {name: (matrices, columns)}
        try:
            file = File(path)
        except OSError as e:
            raise ExportError(f"{path}: {e.strerror}") from None
        start = file.read(0, min(file.size, 8))
        sums = read_imatrix(file) if start[:4] == b"GGUF" else self.read(file)
        for name, (total, counts) in sums.items():
            if not all(np.isfinite(a).all() and (a >= 0).all() for a in (total, counts)):
                raise ExportError(f"{path}: tensor {name}: no mean squares with counts: one is negative or no number")
            self.columns[name] = self.weights(total, counts)

    @classmethod
    def read(cls, file):
        """Ours: {name: (means, counts)}."""
        about = {}
        try:
            tensors = read_safetensors(file, about)
        except ExportError as e:
            raise ExportError(f"{e}: {NO_STATISTICS}") from None
        if about.get("format") != cls.FORMAT:
            raise ExportError(f"{file.path}: {NO_STATISTICS}")
        out = {}
        for name, t in tensors.items():
            if name.endswith(".count"):
                continue
            counts = tensors.get(name + ".count")
            if counts is None or counts.dtype != "I64" or t.dtype != "F32" or len(t.shape) != 2 or counts.shape != t.shape[:1]:
                raise ExportError(f"{file.path}: tensor {name} is not F32 of two dimensions with counts in I64 beside it")
            out[name] = t.data[:].reshape(t.shape), counts.data[:]
        return out

    @staticmethod
    def weights(means, counts):
        """Means as weights: an expert that no token chose gets those of all others, and a column that was always 0 still counts."""
        means = means.astype(np.float32)
        seen = counts > 0
        whole = np.average(means[seen], axis=0, weights=counts[seen]) if seen.any() else np.ones(means.shape[1])
        means = np.where(seen[:, None], means, whole)
        least = 1e-6 * means.mean(axis=1, keepdims=True)
        return np.where(least > 0, np.maximum(means, least), 1).astype(np.float32)

    def of(self, e, i):
        """The weights of the columns of matrix i; None: nothing is known."""
        columns = self.columns.get(e.name)
        if columns is None:
            return None
        if columns.shape != (len(e.parts), e.cols):
            raise ExportError(f"{self.path}: tensor {e.name} has shape {columns.shape}, expected {(len(e.parts), e.cols)}: of another model?")
        return columns[i]

    def check(self, entries):
        """Are they of this model? Returns the names of matrices that are searched without them."""
        missing = [e.name for e in entries if e.layout != PLAIN and TYPES[e.type].search and self.of(e, 0) is None]
        if not any(e.name in self.columns for e in entries):
            raise ExportError(f"{self.path}: has no tensor of this model")
        return missing


# A tensor's canonical name is that of Gemma4ForCausalLM without "model.": embed_tokens.weight, layers.0.self_attn.q_proj.weight.
# Towers keep theirs: vision_tower., audio_tower., embed_vision., embed_audio.
HF_PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "model.")


def canonical_name(name):
    for prefix in HF_PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix):]
    return name


# What stands in the settings of quantised checkpoints -> what people call them.
QUANTISED = {"fp8": "FP8", "fbgemm_fp8": "FP8", "modelopt": "NVFP4 or FP8", "modelopt_fp4": "NVFP4", "nvfp4": "NVFP4", "mxfp4": "MXFP4",
             "float-quantized": "FP8", "nvfp4-pack-quantized": "NVFP4", "bitsandbytes": "bitsandbytes", "awq": "AWQ", "gptq": "GPTQ",
             "auto-round": "AutoRound", "gemma": "mobile QAT", "compressed-tensors": "compressed-tensors"}
# and the endings of their tensors' names, for those that say nothing
PACKED_NAMES = ((r".*\.lora_[AB](\..*)?", "LoRA"), (r".*\.weight_scale_2", "NVFP4"), (r".*\.(absmax|quant_map|SCB|quant_state\..*)", "bitsandbytes"),
                (r".*\.(qweight|qzeros|g_idx)", "GPTQ or AWQ"), (r".*\.weight_scale(_inv)?", "FP8"), (r".*\.(weight_packed|weight_zero_point)",
                "compressed-tensors"), (r".*\.(scales|biases)", "MLX"))


def refuse_lora(where, base):
    of = f" of {base}" if isinstance(base, str) and base else ""
    raise ExportError(f"{where}: a LoRA adapter{of} and no model: merge it into that first (peft: merge_and_unload, save_pretrained) and "
                      "convert the result")


def refuse_packed(where, kind):
    if kind == "LoRA":
        refuse_lora(where, None)
    how = "call dequantize() on it in transformers and save that, or " if kind == "bitsandbytes" else ""
    raise ExportError(f"{where} is packed as {kind}, in a form that is not read: {how}convert the bf16 checkpoint that it was made from, or a GGUF")


def quantised_kind(config):
    """What config.json says that the weights are packed as, in people's words; None: it says nothing. MLX has a key of its own."""
    inner = config.get("text_config")
    for c in (config, inner if isinstance(inner, dict) else {}):
        q = c.get("quantization_config")
        if isinstance(q, dict) and q.get("quant_method"):
            method, algorithm = q["quant_method"], q.get("quant_algo")
            kinds = [QUANTISED.get(d.lower()) for d in (algorithm, q.get("format"), method) if isinstance(d, str)]
            return next((kind for kind in kinds if kind), shown(method))
        if isinstance(q, dict) and (q.get("load_in_4bit") or q.get("load_in_8bit")):
            return "bitsandbytes"
        if isinstance(c.get("quantization"), dict):
            return "MLX"
    return None


def refuse_packed_tensors(src):
    """Weights that are packed in ways that are not read here. A configuration may say so of some that no longer are."""
    left = [t for name, t in src.tensors.items() if not re.fullmatch(ACTIVATION_SCALES, name)]
    stated = quantised_kind(src.config)
    for t in left:
        kind = next((kind for pattern, kind in PACKED_NAMES if re.fullmatch(pattern, t.name)), "FP8" if t.dtype.startswith("F8_") else None)
        if kind or t.dtype in SAFETENSORS_OTHERS and stated:
            refuse_packed(t.where, stated or kind)
    for t in left:
        if t.dtype in SAFETENSORS_OTHERS:
            raise ExportError(f"{t.where} has type {t.dtype}; F32, F16 and BF16 can be read: convert the bf16 checkpoint that it was made from, or a GGUF")


# ---- Packed checkpoints -------------------------------------------------------------------------
#
# Matrices that a checkpoint stores as codes of a few bits with scales, several tensors for each, in the ways of the libraries that
# make them. What is rounded there in float16 or bfloat16, code times scale, is not rounded here.

class Packed(Stored):
    """A matrix of codes: weight = factor * code + summand, with the same factor and summand for each `share` weights of a row.

    kind             what people call it, in messages
    bits             that hold a code, a whole number: signed ones without summands, else from 0 on; None: codes are values of a table
    codes(r0, r1)    those of some rows (n, cols), int8 or float32
    factors(r0, r1)  (n, cols / share) float32; summands of that shape, or None
    rounded_to       the type for codes that no type keeps
    rows_of          the type with a scale for each row that holds the codes, if there is one
    """

    def __init__(self, stored, name, shape, kind, bits, share, codes, factors, has_summands=False, rounded_to=Q8_0, rows_of=None):
        super().__init__(name, shape, kind, None)
        self.where = stored.where
        self.share, self.codes, self.factors, self.has_summands = share, codes, factors, has_summands
        self.is_kept = bool(bits) and share % BLOCK == 0 and self.cols % BLOCK == 0 and bits <= (5 if has_summands else 8)
        self.becomes = rounded_to
        if rows_of is not None and (share % 256 == 0 or share == self.cols):
            self.is_kept, self.becomes = True, rows_of
        elif self.is_kept:
            self.becomes = (Q4_1 if bits <= 4 else Q5_1) if has_summands else Q4_0 if bits <= 4 else Q8_0

    def f32(self, r0=0, r1=None):
        r1 = self.rows if r1 is None else r1
        factor, summand = self.factors(r0, r1)
        x = self.codes(r0, r1).reshape(*factor.shape, self.share) * factor[:, :, None]
        if summand is not None:
            x += summand[:, :, None]
        if not np.isfinite(x).all():
            raise ExportError(f"{self.where}: holds a NaN or an infinity")
        return x.reshape(r1 - r0, self.cols)

    def kept(self, type_, r0, r1):
        return self.with_scales(type_, r0, r1, lambda a: a if self.has_row_scales() else f32_to_f16(a, self.where))

    def kept_bf16(self, type_, r0, r1):
        return self.with_scales(type_, r0, r1, f32_to_bf16)

    def with_scales(self, type_, r0, r1, rounded):
        if not self.is_kept or type_ != self.becomes and not (self.has_row_scales() and TYPES[type_].holds(TYPES[self.becomes])):
            return None
        arrays, times = [a for a in self.factors(r0, r1) if a is not None], round_up(self.share, TYPES[type_].share) // TYPES[type_].share
        return self.codes(r0, r1), [np.repeat(rounded(a), times, axis=1) for a in arrays]

    def has_row_scales(self):
        return isinstance(TYPES[self.becomes], RowType)

    @functools.cached_property
    def scale_errors(self):
        """The largest relative errors of the factors in f16 and in bf16."""
        errors, step = np.zeros(2), max(1, Numbers.PIECE * self.share // self.cols)
        for r in range(0, self.rows, step):
            d = self.factors(r, min(self.rows, r + step))[0]
            for i, near in enumerate((d.astype(np.float16).astype(np.float32), bf16_to_f32(f32_to_bf16(d)))):
                errors[i] = max(errors[i], np.divide(np.abs(near - d), np.abs(d), out=np.zeros_like(d), where=d != 0).max())
        return errors

    def scales_are_bf16(self):
        """Is bf16 nearer to the scales of a q4_0 than f16?"""
        return self.becomes == Q4_0 and bool(self.scale_errors[1] < self.scale_errors[0])

    def is_exact(self, type_):
        if not self.is_kept or type_ != self.becomes or self.has_summands:
            return False
        return self.has_row_scales() or self.scale_errors[:1 + (type_ == Q4_0)].min() == 0


class Unsized(Stored):
    """A matrix of the mobile format: a byte holds 1, 2 or 4 numbers, which only the shape that is expected of it tells."""

    def __init__(self, name, packed, scale):
        super().__init__(name, packed.shape, "mobile QAT", packed.data)
        self.packed, self.scale = packed, scale

    def raw(self, r0=0, r1=None):
        return np.concatenate([t.raw(r0, r1).view(np.uint8) for t in (self.packed, self.scale)], axis=1)

    def sized(self, shape):
        """As a matrix of that shape, if it can be one."""
        t, cols = self.packed, shape[-1]
        bits = 8 if t.dtype == "I8" else 4 if t.cols == (cols + 1) // 2 else 2
        if len(shape) != 2 or shape[0] != t.rows or t.cols != round_up(cols * bits, 8) // 8:
            raise ExportError(f"{self.where} has shape {t.shape} in {t.dtype}, expected numbers of 2, 4 or 8 bits of a matrix {tuple(shape)}")
        share, factors = spread(self.scale, shape)

        def codes(r0, r1):
            q = t.raw(r0, r1)
            return q if bits == 8 else (bit_stream(q, bits, cols) - np.uint8(1 << bits - 1)).view(np.int8)

        return Packed(self, self.name, shape, f"mobile QAT of {bits} bits", bits, share, codes, lambda r0, r1: (factors(r0, r1), None),
                      rounded_to=Q4_0 if bits < 8 else Q8_0, rows_of={2: Q2_ROW, 4: Q4_ROW, 8: Q8_ROW}[bits])


class Parts:
    """The tensors of one packed matrix, taken out of the checkpoint as they are asked for."""

    def __init__(self, src, base):
        self.src, self.base = src, base

    def take(self, ending, dtypes, needed=True):
        t = self.src.tensors.pop(self.base + ending, None)
        if t is None and needed:
            raise ExportError(f"{self.src.path}: tensor {self.base + ending} is missing, which {self.base} is packed with: it is damaged, or in a form "
                              "that is not read: convert the bf16 checkpoint that it was made from, or a GGUF")
        if t is not None and t.dtype not in dtypes:
            raise ExportError(f"{t.where} has type {t.dtype}, expected {' or '.join(dtypes)}")
        return t

    def setting(self, *names):
        """Of config.json's sections of that name, the first one's; none: an empty one."""
        inner = self.src.config.get("text_config")
        for c in (self.src.config, inner if isinstance(inner, dict) else {}):
            for name in names:
                if isinstance(c.get(name), dict):
                    return Fields(c[name], f"{self.src.path}: config: {name}")
        return Fields({}, f"{self.src.path}: config")


FLOATS = tuple(SAFETENSORS_TYPES)


def bit_stream(words, bits, n):
    """Rows of words, a stream of bits from the lowest one on -> the first n numbers of so many bits of each row (rows, n)."""
    raw = np.ascontiguousarray(words).view(np.uint8)
    if 8 % bits == 0:
        q = raw[:, :, None] >> np.arange(0, 8, bits, dtype=np.uint8) & np.uint8((1 << bits) - 1)
        return q.reshape(len(raw), -1)[:, :n]
    eights = round_up(n, 8) // 8  # of numbers, in as many bytes as they have bits
    wide = np.zeros((len(raw), eights, 8), np.uint8)
    wide[:, :, :bits] = ModelFile.pad(raw[:, :eights * bits], len(raw), eights * bits).reshape(len(raw), eights, bits)
    q = wide.view("<u8") >> np.arange(0, 8 * bits, bits, dtype=np.uint64) & np.uint64((1 << bits) - 1)
    return q.astype(np.uint8).reshape(len(raw), -1)[:, :n]


def spread(t, shape, block=None):
    """(share, function of rows): a tensor of scales over a matrix or a stack of them. There is one for a matrix, a row, a group of
    columns or a block of so many (rows, columns)."""
    rows, cols = shape[-2:]
    n = math.prod(shape[:-2])
    down, across = (1, 1) if math.prod(t.shape) == n else (t.shape[-1], 1) if len(t.shape) == 1 else t.shape[-2:]
    if math.prod(t.shape) != n * down * across or down > rows or across > cols:
        raise ExportError(f"{t.where} has shape {t.shape}, expected scales of a matrix of shape {tuple(shape)}")

    def size(whole, parts, given):
        if 1 < parts < whole and given and round_up(whole, given) == given * parts:
            return given
        if whole % parts:
            raise ExportError(f"{t.where} has shape {t.shape}, which does not divide a matrix of shape {tuple(shape)}")
        return whole // parts

    high, wide = size(rows, down, block and block[0]), size(cols, across, block and block[1])
    flat = Stored(t.name, (n * down, across), t.dtype, t.data)

    def factors(r0, r1):
        at = np.arange(r0, r1)
        at = at // rows * down + at % rows // high
        if not len(at):
            return np.zeros((0, across if cols % wide == 0 else cols), np.float32)
        d = flat.f32(at[0], at[-1] + 1)[at - at[0]]
        return d if cols % wide == 0 else np.repeat(d, wide, axis=1)[:, :cols]

    return wide if cols % wide == 0 else 1, factors


def compressed_integers(p):
    """compressed-tensors, pack-quantized: streams of 1 to 8 bits in int32, of q + half the range; scales of rows or groups; where
    these are not symmetric about 0, zero points packed along the rows."""
    packed, scale = p.take(".weight_packed", ("I32",)), p.take(".weight_scale", FLOATS)
    zeros, index = p.take(".weight_zero_point", ("I32",), False), p.take(".weight_g_idx", ("I32",), False)
    shape = tuple(int(n) for n in p.take(".weight_shape", ("I64", "I32")).data[0:MAX_DIMENSIONS])
    is_shape = len(shape) > 1 and 0 < shape[-1] <= 32 * packed.cols and shape[:-1] == packed.shape[:-1]
    fits = [b for b in range(1, 9) if is_shape and round_up(shape[-1] * b, 32) == 32 * packed.cols]
    if len(fits) != 1:
        raise ExportError(f"{packed.where} of shape {packed.shape} does not hold {shape} numbers of 1 to 8 bits")
    bits, cols, half = fits[0], shape[-1], 1 << fits[0] - 1
    share, factors = spread(scale, shape)

    def codes(r0, r1):
        q = bit_stream(packed.raw(r0, r1), bits, cols)
        return (q if zeros else q - np.uint8(half)).view(np.int8) if bits < 8 or not zeros else q.astype(np.int16)

    wanted = (round_up(shape[0] * bits, 32) // 32, cols // share)
    if zeros and (len(shape) != 2 or zeros.shape != wanted):
        raise ExportError(f"{zeros.where} has shape {zeros.shape}, expected {wanted}")

    def both(r0, r1):
        d = factors(r0, r1)
        return d, -d * bit_stream(zeros.raw().T, bits, shape[0])[:, r0:r1].T.astype(np.float32) if zeros else None

    if index is not None and index.raw().min() >= 0:
        share, both = 1, by_column(index, cols // share, cols, both)
    return Packed(packed, p.base + ".weight", shape, f"compressed-tensors of {bits} bits", bits, share, codes, both, zeros is not None,
                  Q5_K if bits <= 4 else Q8_0)


def by_column(index, groups, cols, factors):
    """Factors of groups -> of columns, where a tensor says which group each column belongs to."""
    at = index.raw().reshape(-1)
    if len(at) != cols or at.min() < 0 or at.max() >= groups:
        raise ExportError(f"{index.where} does not give {cols} columns one of {groups} groups each")
    return lambda r0, r1: tuple(None if a is None else a[:, at] for a in factors(r0, r1))


def float8_values():
    """Values of the codes of F8_E4M3: a sign, 4 bits of exponent, 3 of mantissa; no infinity, the largest is a NaN."""
    code = np.arange(128)
    high, low = code >> 3, code & 7
    x = np.where(high == 0, low * 2.0 ** -9, (8 + low) * 2.0 ** (high - 10.0))
    x[127] = np.nan
    return np.concatenate([x, -x]).astype(np.float32)


def scaled_bytes(p, ending):
    """A byte for each weight: F8_E4M3 (compressed-tensors, fbgemm, DeepSeek's blocks) or int8, and its scales."""
    t = p.take("", ("F8_E4M3", "I8", "U8"))
    if t.dtype == "U8" and p.src.tensors[p.base + ending].dtype == "F8_E4M3":
        refuse_packed(t.where, "NVFP4")
    scale = p.take(ending, FLOATS)
    if p.setting("quantization_config").values.get("quant_method") == "gemma" or t.dtype == "U8":
        return mobile(p.base, t, scale)
    if len(t.shape) < 2:
        raise ExportError(f"{t.where} has shape {t.shape}, expected a matrix")
    share, factors = spread(scale, t.shape, block_size(p))
    both, table = lambda r0, r1: (factors(r0, r1), None), float8_values()
    if t.dtype == "I8":
        return Packed(t, p.base, t.shape, "int8", 8, share, t.raw, both)
    return Packed(t, p.base, t.shape, "FP8", None, share, lambda r0, r1: table[t.raw(r0, r1)], both)


def mobile(name, t, scale):
    """Matrices of 2, 4 and 8 bits with a scale in float32 for each row, of tables also for each layer's part of it."""
    if len(t.shape) != 2 or len(scale.shape) != 2 or scale.rows != t.rows or scale.dtype != "F32":
        raise ExportError(f"{scale.where} has shape {scale.shape} in {scale.dtype}, expected a scale in F32 for each row of {t.shape}")
    return Unsized(name, t, scale)


def mobile_table(p):
    return mobile(p.base + ".weight", p.take(".embedding_quantized", ("U8", "I8")), p.take(".embedding_scale", FLOATS))


def block_size(p):
    """How many rows and columns share a scale, where a configuration says so."""
    q = p.setting("quantization_config")
    groups = q.values.get("config_groups")
    places = [q.values, *(groups.values() if isinstance(groups, dict) else ())]
    for place in places:
        weights = place.get("weights", place) if isinstance(place, dict) else {}
        for key in ("weight_block_size", "block_structure"):
            block = weights.get(key) if isinstance(weights, dict) else None
            if isinstance(block, list) and len(block) == 2 and all(isinstance(n, int) and 0 < n < 1 << 20 for n in block):
                return block
    return None


def bitsandbytes_bytes(p):
    """bitsandbytes, LLM.int8: 127 stands for each row's largest."""
    t = p.take(".weight", ("I8",))
    p.take(".weight_format", ("U8",), False)
    share, tops = spread(p.take(".SCB", FLOATS), t.shape)
    return Packed(t, p.base + ".weight", t.shape, "bitsandbytes of 8 bits", 8, share, t.raw, lambda r0, r1: (tops(r0, r1) / np.float32(127), None))


def bitsandbytes_nibbles(p):
    """bitsandbytes, nf4 and fp4: a table gives 16 codes their values; blocks of the matrix as one row of weights, the high nibble
    of a byte first. The blocks' scales may be such bytes themselves, with a table and an offset."""
    table, t, absmax = p.take(".weight.quant_map", ("F32",)), p.take(".weight", ("U8",)), p.take(".weight.absmax", ("F32", "U8"))
    state = p.take(".weight.quant_state.bitsandbytes__nf4", ("U8",), False) or p.take(".weight.quant_state.bitsandbytes__fp4", ("U8",))
    try:
        values = json.loads(state.data[0:1 << 16].tobytes())
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ExportError(f"{state.where} is not JSON")
    s = Fields(values, f"{state.where}")
    shape, size = [s.checked_count("shape", n, low=1) for n in s.list("shape", 2)], s.count("blocksize", low=1, high=1 << 20)
    kind, n, cols = s.text("quant_type"), math.prod(shape), shape[1]
    counts = [math.prod(x.shape) for x in (t, absmax, table)]
    if kind not in ("nf4", "fp4") or counts != [round_up(n, 2) // 2, round_up(n, size) // size, 16]:
        raise ExportError(f"{t.where}: {shown(kind)} of shape {tuple(shape)} in blocks of {size} does not fit tensors of {counts} elements")
    scales = bitsandbytes_scales(p, s, absmax)
    table, share = table.f32().reshape(-1), size if cols % size == 0 else 1

    def codes(r0, r1):
        a, b = r0 * cols, r1 * cols
        raw = t.data[a // 2:(b + 1) // 2]
        return table[np.stack([raw >> 4, raw & 15], axis=1).reshape(-1)[a % 2:a % 2 + b - a].reshape(r1 - r0, cols)]

    def factors(r0, r1):
        at = np.arange(r0 * cols, r1 * cols, share) // size
        return (scales(at[0], at[-1] + 1)[at - at[0]] if len(at) else np.zeros(0, np.float32)).reshape(r1 - r0, cols // share), None

    return Packed(t, p.base + ".weight", shape, f"bitsandbytes {kind}", None, share, codes, factors, rounded_to=Q5_K)


def bitsandbytes_scales(p, s, absmax):
    """A function of blocks -> their scales."""
    if absmax.dtype == "F32":
        return lambda a, b: absmax.plain(a, b)
    table, outer = p.take(".weight.nested_quant_map", ("F32",)), p.take(".weight.nested_absmax", ("F32",))
    size, offset = s.count("nested_blocksize", low=1, high=1 << 20), np.float32(s.number("nested_offset", 0, low=-1e30))
    n = math.prod(absmax.shape)
    if math.prod(table.shape) != 256 or math.prod(outer.shape) * size != round_up(n, size):
        raise ExportError(f"{absmax.where}: {n} scales in blocks of {size} do not fit {math.prod(outer.shape)} scales of theirs")
    values, each = table.f32().reshape(-1), outer.f32().reshape(-1)
    return lambda a, b: values[absmax.data[a:b]] * each[np.arange(a, b) // size] + offset


@functools.lru_cache(maxsize=8)  # codes and scales of gate and up, and of what comes next
def whole(function):
    """What a function of nothing gives, kept for a while: a matrix that is stored by columns is read once."""
    return function()


WHOLE = threading.Lock()


def kept_whole(function):
    def get():
        with WHOLE:
            return whole(function)
    return get


def columns_packed(p):
    """GPTQ and AWQ: columns of the matrix are rows of the tensors. GPTQ has streams of 2, 3, 4 or 8 bits along the columns, zero points
    less 1 (but in gptq_v2) and perhaps the group of each column; AWQ has 8 rows in an int32, in an order of its own. AutoRound writes both,
    and forms of its own whose zero points are not known to be either's."""
    t, scales, zeros = p.take(".qweight", ("I32",)), p.take(".scales", FLOATS), p.take(".qzeros", ("I32",), False)
    index, q = p.take(".g_idx", ("I32",), False), p.setting("quantization_config")
    rows, groups, version = scales.cols, scales.rows, q.values.get("checkpoint_format", "gptq")
    packing = q.values.get("packing_format", "auto_round:gptq")
    is_known = isinstance(packing, str) and re.fullmatch(r"(auto_round:)?(auto_)?(gptq|awq)", packing)

    def refuse():
        raise ExportError(f"{t.where} of shape {t.shape} with scales of shape {scales.shape} is in a form of GPTQ or AWQ that is not read: convert "
                          "the bf16 checkpoint that it was made from, or a GGUF")

    is_awq = t.cols * 8 == rows
    bits = 4 if is_awq else 32 * zeros.cols // rows if zeros else q.count("bits", 4)
    cols = t.rows if is_awq else 32 * t.rows // max(bits, 1)
    if bits not in (2, 3, 4, 8) or len(t.shape) != 2 or len(scales.shape) != 2 or not is_awq and (t.cols != rows or cols * bits != 32 * t.rows) or \
            zeros and zeros.shape != (groups, rows * bits // 32) or cols % groups and index is None or \
            not is_awq and version not in ("gptq", "gptq_v2") or not is_known:
        refuse()
    half, z = 1 << bits - 1, None

    def along_rows(words):
        """Streams along the rows -> (stored rows, matrix rows)."""
        x = bit_stream(words, bits, rows)
        return x.reshape(len(x), -1, 8)[:, :, [0, 4, 1, 5, 2, 6, 3, 7]].reshape(x.shape) if is_awq else x

    if zeros:
        z = zero_points(zeros.raw(), bits, along_rows, less_1=not is_awq and version == "gptq").T.astype(np.float32)
        z = None if (z == half).all() else z
        if z is not None and not is_awq and q.values.get("sym") is True:  # a step beside what they are, in a version that is not named
            refuse()
    packed = kept_whole(lambda: np.ascontiguousarray((along_rows(t.raw()) if is_awq else t.raw()).T))
    d = kept_whole(lambda: np.ascontiguousarray(scales.f32().T))

    def codes(r0, r1):
        x = packed()[r0:r1] if is_awq else bit_stream(packed()[r0:r1], bits, cols)
        return (x - np.uint8(half)).view(np.int8) if z is None else x.view(np.int8) if bits < 8 else x.astype(np.int16)

    def factors(r0, r1):
        each = d()[r0:r1]
        return each, None if z is None else -each * z[r0:r1]

    share = cols // groups if cols % groups == 0 else 0
    if index is not None and (not share or not np.array_equal(index.raw().reshape(-1), np.arange(cols) // share)):
        share, factors = 1, by_column(index, groups, cols, factors)
    return Packed(t, p.base + ".weight", (rows, cols), f"{'AWQ' if is_awq else 'GPTQ'} of {bits} bits", bits, share, codes, factors, z is not None,
                  Q5_K if bits <= 4 else Q8_0)


def zero_points(words, bits, unpack, less_1):
    """GPTQ's first version has 1 subtracted from whole words, with a borrow from number to number; not of 3 bits, which cross words."""
    if less_1 and bits != 3:
        words = words.view("<u4") + np.uint32(0xFFFFFFFF // ((1 << bits) - 1))
    z = unpack(words)
    return z + np.uint8(1) & np.uint8(7) if less_1 and bits == 3 else z


def mlx(p):
    """MLX, affine: streams of 2 to 8 bits; each group of columns has a scale and a bias."""
    t, scales, biases = p.take(".weight", ("U32",)), p.take(".scales", FLOATS + ("U8",)), p.take(".biases", FLOATS, False)
    q = p.setting("quantization", "quantization_config")
    own = q.values.get(t.name.removesuffix(".weight"))
    q = Fields({**q.values, **(own if isinstance(own, dict) else {})}, q.where)
    bits, size = q.count("bits", 4, low=2, high=8), q.count("group_size", 64, low=1, high=1 << 16)
    if q.text("mode", "affine") != "affine" or biases is None:
        raise ExportError(f"{t.where} is packed by MLX in mode {shown(q.text('mode', None))}, of which only affine is read: convert the bf16 "
                          "checkpoint that it was made from, or a GGUF")
    shape = (*t.shape[:-1], size * scales.cols)
    if len(shape) < 2 or shape[-1] * bits != 32 * t.cols or scales.shape[:-1] != t.shape[:-1] or biases.shape != scales.shape:
        raise ExportError(f"{t.where} of shape {t.shape} does not hold groups of {size} numbers of {bits} bits with scales of shape {scales.shape}")

    def codes(r0, r1):
        x = bit_stream(t.raw(r0, r1), bits, shape[-1])
        return x.view(np.int8) if bits < 8 else x.astype(np.int16)

    def factors(r0, r1):
        return scales.f32(r0, r1), biases.f32(r0, r1)

    return Packed(t, p.base + ".weight", shape, f"MLX of {bits} bits", bits, size, codes, factors, True, Q5_K if bits <= 4 else Q8_0)


# The ending of a tensor that each packed matrix has; what else has to be there, of which type, for it to mean that; what reads them.
PACKED = {".weight_packed": (".weight_packed", ("I32",), compressed_integers), ".qweight": (".qweight", ("I32",), columns_packed),
          ".SCB": (".weight", ("I8",), bitsandbytes_bytes), ".weight.quant_map": (".weight", ("U8",), bitsandbytes_nibbles),
          ".scales": (".weight", ("U32",), mlx), "_scale_inv": ("", ("F8_E4M3", "I8"), lambda p: scaled_bytes(p, "_scale_inv")),
          ".embedding_scale": (".embedding_quantized", ("U8", "I8"), mobile_table),
          "_scale": ("", ("F8_E4M3", "I8", "U8"), lambda p: scaled_bytes(p, "_scale"))}
SCALES_LEFT_OUT = "scales of activations, keys and values, which have their own here"
ACTIVATION_SCALES = r".*\.(activation_scale|(in|out)put_(activation_)?scale|input_scale_ub|input_zero_point|[kv]_(cache_)?scale)"


def open_packed(src):
    """Put the matrices of a packed checkpoint in the place of the tensors that they are stored in."""
    for name in list(src.tensors):
        ending = next((e for e in PACKED if name.endswith(e) and name in src.tensors), None)
        if ending is None:
            continue
        base, (beside, dtypes, read) = name[:-len(ending)], PACKED[ending]
        if base + beside in src.tensors and src.tensors[base + beside].dtype in dtypes:
            matrix = read(Parts(src, base))
            src.add(matrix.name, matrix)
    src.ignore(ACTIVATION_SCALES, SCALES_LEFT_OUT)


def mlx_layout(src):
    """MLX calls experts by another name and stores convolutions channels last, whether its checkpoints are packed or not."""
    for name in list(src.tensors):
        t, expert = src.tensors[name], re.fullmatch(r"(.*\.experts)\.switch_glu\.(\w+_proj)\.weight", name)
        if expert:
            del src.tensors[name]
            src.add(f"{expert[1]}.{expert[2]}", t)
        elif re.fullmatch(r"audio_tower\..*\.(conv|depthwise_conv1d)\.weight", name) and t.dtype in FLOATS and len(t.shape) in (3, 4):
            window = t.shape[1:-1]  # channels last: (3, 3) or the taps
            if window == (3, 3) != t.shape[2:] or len(window) == 1 and window[0] > 1 == t.shape[-1]:
                src.tensors[name] = Stored.of(t.name, np.moveaxis(t.f32().reshape(t.shape), -1, 1))


def weight_files(src):
    """(names of the safetensors files, {tensor: file} or None): a single file comes before shards, as in transformers, which may
    be left from before it was made."""
    if os.path.exists(os.path.join(src.path, "model.safetensors")):
        return ["model.safetensors"], None
    index = os.path.join(src.path, "model.safetensors.index.json")
    if not os.path.exists(index):
        there = sorted(os.listdir(src.path))
        other = next((n for n in there if n.endswith(".gguf")), None) or next((n for n in there if n.endswith((".bin", ".pt", ".pth"))), None)
        hint = "" if not other else f"; for {other}, give that file" if other.endswith(".gguf") else f"; {other} is not read: save it as safetensors"
        raise ExportError(f"{src.path}: no model.safetensors and no model.safetensors.index.json{hint}")
    where = src.open(index).json().get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(f, str) for f in where.values()):
        raise ExportError(f"{index}: has no weight_map")
    outside = next((f for f in where.values() if os.path.basename(f) != f or f in ("", ".", "..")), None)
    if outside is not None:
        raise ExportError(f"{index}: names a file outside its folder: {shown(outside)}")
    return sorted(set(where.values())), where


def open_folder(path):
    """A Hugging Face checkpoint: config.json, safetensors (one file or an index with shards), tokenizer.json."""
    src = Source(path)

    def settings(name):
        """That file's object; none if it is not there."""
        file = os.path.join(path, name)
        return src.open(file).json() if os.path.exists(file) else {}

    if os.path.exists(os.path.join(path, "adapter_config.json")):
        refuse_lora(path, settings("adapter_config.json").get("base_model_name_or_path"))
    if not os.path.exists(os.path.join(path, "config.json")):
        weight_files(src)  # which says what there is instead, if these are not there either
    src.config = src.open(os.path.join(path, "config.json")).json()
    files, where = weight_files(src)
    for name in files:
        for tensor in read_safetensors(src.open(os.path.join(path, name))).values():
            if where is not None and where.get(tensor.name) != name:
                raise ExportError(f"{path}: tensor {tensor.name} lies in {name}, the index says {where.get(tensor.name)}")
            src.add(canonical_name(tensor.name), tensor)
    missing = sorted(set(where or {}) - {t.name for t in src.tensors.values()})
    if missing:
        raise ExportError(f"{path}: tensor {missing[0]} is in the index but in no file")
    open_packed(src)
    mlx_layout(src)
    refuse_packed_tensors(src)

    src.tokenizer = src.open(os.path.join(path, "tokenizer.json")).json()
    image = Fields(settings("processor_config.json"), os.path.join(path, "processor_config.json")).section("image_processor", {})
    src.image_tokens = image.count("max_soft_tokens", 280)
    if src.image_tokens not in (70, 140, 280, 560, 1120):
        image.refuse("max_soft_tokens", src.image_tokens, "70, 140, 280, 560 or 1120")
    src.generation = settings("generation_config.json")
    template = os.path.join(path, "chat_template.jinja")
    src.template = src.open(template).text() if os.path.exists(template) else settings("tokenizer_config.json").get("chat_template")
    if isinstance(src.template, list):  # several by name
        src.template = next((t.get("template") for t in src.template if isinstance(t, dict) and t.get("name") == "default"), None)
    return src


def gguf_dequantize(dtype, raw):
    """raw (rows, bytes) of one block type -> float32."""
    try:
        import gguf
        return gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[dtype])
    except ImportError:
        raise ExportError(f"reading {dtype} needs the Python package gguf: pip install gguf") from None
    except (KeyError, NotImplementedError):
        raise ExportError(f"the Python package gguf that is installed does not read {dtype}: pip install -U gguf") from None


GGUF_MAX_ITEMS = 1 << 24  # of a list; the longest there is, the merges, has half a million


class GgufReader:
    """The head of a GGUF file from its first byte on; every length is held against what is left of the file before it is used."""

    AHEAD = 1 << 20

    def __init__(self, file):
        self.file, self.pos = file, 0
        self.window, self.begin = b"", 0  # bytes of the file from begin on

    def bytes(self, n, what):
        if n > self.file.size - self.pos:
            raise ExportError(f"{self.file.path}: {what} of {n} bytes at byte {self.pos} of {self.file.size}: cut short, or damaged")
        at = self.pos - self.begin
        if at + n > len(self.window):
            self.begin, at = self.pos, 0
            self.window = self.file.read(self.pos, max(n, min(self.AHEAD, self.file.size - self.pos)))
        self.pos += n
        return self.window[at:at + n]

    def number(self, fmt):
        return struct.unpack(fmt, self.bytes(struct.calcsize(fmt), "a number"))[0]

    def string(self, what="a text"):
        at = self.pos
        try:
            return str(self.bytes(self.number("<Q"), what), "utf-8")
        except UnicodeDecodeError:
            raise ExportError(f"{self.file.path}: {what} at byte {at} is not UTF-8") from None

    def value(self, key):
        kind = self.number("<I")
        if kind in GGUF_SCALARS:
            return self.number(GGUF_SCALARS[kind])
        if kind == GGUF_STRING:
            return self.string(f"the text of {key}")
        if kind != GGUF_ARRAY:
            raise ExportError(f"{self.file.path}: metadata {key} is of unknown type {kind}")
        item, n = self.number("<I"), self.number("<Q")
        if item not in GGUF_SCALARS and item != GGUF_STRING:
            raise ExportError(f"{self.file.path}: metadata {key} is a list of unknown type {item}")
        if n > GGUF_MAX_ITEMS:
            raise ExportError(f"{self.file.path}: metadata {key} is a list of {n}, more than {GGUF_MAX_ITEMS}")
        if item == GGUF_STRING:
            return [self.string(f"a text of {key}") for _ in range(n)]
        dtype = np.dtype(GGUF_SCALARS[item].replace("B", "u1").replace("b", "i1"))
        return np.frombuffer(self.bytes(n * dtype.itemsize, f"the list {key}"), dtype).tolist()


def gguf_type_name(kind):
    """A type that is not read, by the name that people know where the gguf package is there to ask."""
    try:
        import gguf
        return gguf.GGMLQuantizationType(kind).name
    except (ImportError, ValueError):
        return f"number {kind}"


def read_gguf(file):
    """(metadata as plain values, {name: Stored}) of a GGUF file; shapes are (rows, cols), reversed from the file's order."""
    path, r = file.path, GgufReader(file)
    if file.size < 24 or r.bytes(4, "the magic") != b"GGUF":
        raise ExportError(f"{path}: not a GGUF file")
    version = r.number("<I")
    if version not in (2, 3) and int.from_bytes(struct.pack(">I", version), "little") in (2, 3):
        raise ExportError(f"{path}: a big-endian GGUF; little-endian ones are read: gguf-convert-endian of the Python package gguf makes it one")
    if version not in (2, 3):
        raise ExportError(f"{path}: GGUF version {version} is not supported (2 and 3 are): convert a newer file, or the checkpoint that it was made from")
    n_tensors, n_keys = r.number("<Q"), r.number("<Q")
    for n, what, least in ((n_tensors, "tensors", 32), (n_keys, "metadata keys", 13)):
        if n * least > file.size:
            raise ExportError(f"{path}: {n} {what} do not fit a file of {file.size} bytes: cut short, or damaged")
    meta = {}
    for _ in range(n_keys):
        key = r.string("a key")
        if key in meta:
            raise ExportError(f"{path}: metadata {key} stands there twice")
        meta[key] = r.value(key)
    if meta.get("general.type") == "adapter":
        refuse_lora(path, meta.get("general.base_model.0.name"))
    fields = Fields(meta, f"{path}: metadata")
    alignment = fields.count("general.alignment", 32, low=1, high=1 << 20)
    if alignment & (alignment - 1):
        fields.refuse("general.alignment", alignment, "a power of 2")
    infos = {}
    for _ in range(n_tensors):
        name, n_dims = r.string("the name of a tensor"), r.number("<I")
        if name in infos:
            raise ExportError(f"{path}: tensor {name} stands there twice")
        if not 1 <= n_dims <= 4:
            raise ExportError(f"{path}: tensor {name} has {n_dims} dimensions")
        shape = [r.number("<Q") for _ in range(n_dims)][::-1]
        infos[name] = (shape, r.number("<I"), r.number("<Q"))
    start = round_up(r.pos, alignment)
    tensors, places, tried = {}, [], set()
    for name, (shape, kind, offset) in infos.items():
        dtype = GGUF_TYPES.get(kind)
        if dtype is None:
            raise ExportError(f"{path}: tensor {name} has GGML type {gguf_type_name(kind)}, which is not read ({', '.join(GGUF_TYPES.values())} "
                              "are): convert a file of another type, or the checkpoint that it was made from")
        block, size = GGUF_BLOCKS.get(dtype, (1, 4 if dtype == "F32" else 2))
        n = math.prod(shape)
        if min(shape) < 1 or shape[-1] % block:
            raise ExportError(f"{path}: tensor {name} of type {dtype} has shape {tuple(shape)}, expected rows of a multiple of {block}")
        if dtype in GGUF_BECOMES and dtype != "MXFP4" and dtype not in tried:  # and not after minutes
            try:
                gguf_dequantize(dtype, np.zeros((1, size), np.uint8))
            except ExportError as e:
                raise ExportError(f"{path}: tensor {name}: {e}") from None
            tried.add(dtype)
        end = start + offset + n // block * size
        if end > file.size:
            raise ExportError(f"{path}: tensor {name} ends at byte {end} of {file.size}: cut short, or damaged")
        if offset % alignment:
            raise ExportError(f"{path}: tensor {name} begins at {offset}, no multiple of {alignment}")
        places.append((start + offset, end, name))
        of, count = (np.dtype(np.uint8), n // block * size) if dtype in GGUF_BLOCKS else (SAFETENSORS_TYPES[dtype], n)
        tensors[name] = Stored(name, shape, dtype, Numbers(file, start + offset, count, of))
    places.sort()
    for (_, end, name), (begin, _, other) in zip(places, places[1:]):
        if begin < end:
            raise ExportError(f"{path}: tensors {name} and {other} overlap")
    return meta, tensors


def read_gguf_parts(src, path):
    """(metadata, tensors) of a GGUF that may be split: all parts lie beside the one at path, NAME-00001-of-00003.gguf and so on."""
    file = src.open(path)
    meta, tensors = read_gguf(file)
    n = Fields(meta, f"{path}: metadata").count("split.count", 1, high=99999)
    if n <= 1:
        return meta, tensors
    name = re.fullmatch(r"(.*-)\d{5}(-of-\d{5}\.gguf)", path, re.DOTALL)
    if not name or name[2] != f"-of-{n:05}.gguf":
        raise ExportError(f"{path}: one of {n} parts of a split GGUF, which must be called NAME-00001-of-{n:05}.gguf and so on to find the others")
    src.files.remove(file)
    whole, all_tensors = {}, {}
    for i in range(n):
        part = f"{name[1]}{i + 1:05}{name[2]}"
        if not os.path.exists(part):
            raise ExportError(f"{part}: missing, part {i + 1} of {n} of a split GGUF: all lie in one folder")
        meta, tensors = read_gguf(src.open(part))
        found = tuple(Fields(meta, f"{part}: metadata").count(key, 0) for key in ("split.no", "split.count"))
        if found != (i, n):
            raise ExportError(f"{part}: calls itself part {found[0] + 1} of {found[1]} of a split GGUF, expected {i + 1} of {n}")
        twice = next((name for name in tensors if name in all_tensors), None)
        if twice is not None:
            raise ExportError(f"{part}: tensor {twice} lies in an earlier part too")
        whole, all_tensors = whole or meta, {**all_tensors, **tensors}
    wanted = Fields(whole, f"{name[1]}00001{name[2]}: metadata").count("split.tensors.count", len(all_tensors))
    if wanted != len(all_tensors):
        raise ExportError(f"{path}: {len(all_tensors)} tensors in {n} parts, expected {wanted}")
    return whole, all_tensors


# GGUF names -> canonical names. In a block, N is the layer.
GGUF_NAMES = {
    "token_embd.weight": "embed_tokens.weight", "output.weight": "lm_head.weight", "output_norm.weight": "norm.weight",
    "per_layer_token_embd.weight": "embed_tokens_per_layer.weight", "per_layer_model_proj.weight": "per_layer_model_projection.weight",
    "per_layer_proj_norm.weight": "per_layer_projection_norm.weight",
}
GGUF_LAYER_NAMES = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight", "attn_k.weight": "self_attn.k_proj.weight", "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight", "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight", "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_feedforward_layernorm.weight", "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight", "ffn_up.weight": "mlp.up_proj.weight", "ffn_down.weight": "mlp.down_proj.weight",
    "ffn_gate_inp.weight": "router.proj.weight", "ffn_gate_inp.scale": "router.scale", "ffn_down_exps.scale": "router.per_expert_scale",
    "ffn_gate_up_exps.weight": "experts.gate_up_proj", "ffn_gate_exps.weight": "experts.gate_proj", "ffn_up_exps.weight": "experts.up_proj",
    "ffn_down_exps.weight": "experts.down_proj", "pre_ffw_norm_2.weight": "pre_feedforward_layernorm_2.weight",
    "post_ffw_norm_1.weight": "post_feedforward_layernorm_1.weight", "post_ffw_norm_2.weight": "post_feedforward_layernorm_2.weight",
    "inp_gate.weight": "per_layer_input_gate.weight", "proj.weight": "per_layer_projection.weight",
    "post_norm.weight": "post_per_layer_input_norm.weight", "layer_output_scale.weight": "layer_scalar",
}


def gguf_name(name):
    """The name in a GGUF of a tensor of the decoder with that canonical name; itself, if it has none there."""
    layer = re.fullmatch(r"layers\.(\d+)\.(.+)", name)
    table, inside = (GGUF_LAYER_NAMES, layer[2]) if layer else (GGUF_NAMES, name)
    there = next((there for there, ours in table.items() if ours == inside), None)
    return name if there is None else f"blk.{layer[1]}.{there}" if layer else there


def gguf_scales(path, tensors):
    """A GGUF's tensors with the factors that stand beside some of them, NAME.scale, taken in. NVFP4 needs them: its blocks' own scales
    have 8 bits. Experts are one tensor with a factor for each; that of ffn_down_exps is the router's in every type."""
    out = dict(tensors)
    for name, t in tensors.items():
        base = tensors.get(name.removesuffix(".scale") + ".weight")
        if not name.endswith(".scale") or base is None or re.sub(r"^blk\.\d+\.", "", name) in GGUF_LAYER_NAMES:
            continue
        n = math.prod(t.shape)
        if t.dtype not in SAFETENSORS_TYPES or n not in (1, math.prod(base.shape[:-2])):
            raise ExportError(f"{path}: tensor {name} has shape {t.shape} in {t.dtype}, expected one factor for each matrix of {base.name} {base.shape}")
        out[base.name] = Scaled(base, t.f32().reshape(-1))
        del out[name]
    return out


# What stands in front of the names of towers, in an mmproj and where ollama keeps them beside the decoder.
GGUF_TOWERS = ("v.", "a.", "mm.")


def gguf_sampling(meta):
    """The fields of a generation_config.json."""
    ids = meta.get("tokenizer.ggml.eos_token_ids")
    keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    return {"eos_token_id": (ids if isinstance(ids, list) else []) + [meta[key] for key in keys if key in meta],
            **{key: meta.get(there) for key, there in (
                ("temperature", "general.sampling.temp"), ("top_k", "general.sampling.top_k"), ("top_p", "general.sampling.top_p"),
                ("bos_token_id", "tokenizer.ggml.bos_token_id"), ("pad_token_id", "tokenizer.ggml.padding_token_id"),
                ("unk_token_id", "tokenizer.ggml.unknown_token_id"))}}


def gguf_gemma3(g, c, rope):
    """What only the configuration of Gemma 3 has. Files of ollama with a vision tower (4B, 12B, 27B) leave out that all of these
    scale the positions of full layers by 8."""
    n, heads = c["num_hidden_layers"], c["num_attention_heads"]
    c["head_dim"] = g.count("attention.key_length", 256)
    # Not stored: 27B alone scales by hidden / heads.
    c["query_pre_attn_scalar"] = c["hidden_size"] // heads if n == 62 else c["head_dim"]
    scaling = g.text("rope.scaling.type", "linear" if "vision.block_count" in g.values else "none")
    if scaling not in ("none", "linear"):
        raise ExportError(f"{g.where}: rope scaling {shown(scaling)} is not supported")
    if scaling == "linear":
        rope["full_attention"].update(rope_type="linear", factor=g.number("rope.scaling.factor", 8.0))


def gguf_gemma4(src, g, c, rope, sliding, kv_heads):
    """What only the configuration of Gemma 4 has."""
    n = c["num_hidden_layers"]
    full = g.count("attention.key_length", low=2)
    c["head_dim"] = g.count("attention.key_length_swa")
    c["per_layer_config"] = {i: {"head_dim": c["head_dim"] if sliding[i] else full, "num_key_value_heads": heads}
                             for i, heads in enumerate(kv_heads)}
    c["hidden_size_per_layer_input"] = g.count("embedding_length_per_layer_input", 0)
    c["num_kv_shared_layers"] = g.count("attention.shared_kv_layers", 0, high=n)
    c["enable_moe_block"] = g.count("expert_count", 0) > 0
    if c["enable_moe_block"]:
        c.update(num_experts=g.count("expert_count"), top_k_experts=g.count("expert_used_count"),
                 moe_intermediate_size=g.count("expert_feed_forward_length"))
    owners = range(n - c["num_kv_shared_layers"])
    c["attention_k_eq_v"] = any(not sliding[i] and not src.has(f"layers.{i}.self_attn.v_proj.weight") for i in owners)
    # Not stored either: the models without per-layer embeddings (26B, 31B) see their images both ways.
    c["use_bidirectional_attention"] = None if c["hidden_size_per_layer_input"] else "vision"
    # The proportional RoPE shows only as divisors of the frequencies: 1 rotates, 1e30 does not.
    divisors = src.take("rope_freqs.weight", (full // 2,)).f32().reshape(-1)
    turned = int((divisors == 1).sum())
    if (divisors[:turned] != 1).any() or (divisors[turned:] < 1e29).any():
        raise ExportError(f"{src.path}: tensor rope_freqs.weight is not 1 for the first pairs and 1e30 for the rest")
    rope["full_attention"].update(rope_type="proportional", partial_rotary_factor=turned / len(divisors))


def open_gguf(path, mmproj):
    """A GGUF of architecture gemma4 or gemma3, as if it were a folder: its metadata become the fields of a config.json."""
    src = Source(path)
    src.is_gguf = True
    src.ignore(r".*\.input_scale", SCALES_LEFT_OUT)
    file = File(path)
    begins = file.read(0, min(file.size, 9))
    if begins.startswith(MAGIC):
        raise ExportError(f"{path}: this is a model file already")
    if begins[8:] == b"{" and not begins.startswith(b"GGUF"):
        raise ExportError(f"{path}: this is a safetensors file: give the folder that it lies in, with config.json and tokenizer.json")
    meta, tensors = read_gguf_parts(src, path)
    arch = meta.get("general.architecture")
    if arch == "clip":
        raise ExportError(f"{path}: these are the towers of a model: give that, and this with --mmproj")
    if arch not in (GEMMA4, GEMMA3):
        raise ExportError(f"{path}: architecture {shown(arch)} is not supported ({GEMMA4} and {GEMMA3} are)")
    g = Fields({key.removeprefix(arch + "."): value for key, value in meta.items() if key.startswith(arch + ".")}, f"{path}: metadata of {arch}")
    towers = {}
    for name, t in gguf_scales(path, tensors).items():
        block = re.fullmatch(r"blk\.(\d+)\.(.+)", name)
        inside = GGUF_LAYER_NAMES.get(block[2]) if block else None
        if name.startswith(GGUF_TOWERS) and arch == GEMMA4:
            towers[name] = t
        else:
            src.add(f"layers.{block[1]}.{inside}" if inside else GGUF_NAMES.get(name, name), t)
    if mmproj and towers:
        raise ExportError(f"{path}: has towers of its own ({min(towers)} and more): leave out --mmproj")
    if mmproj:
        src.towers = read_mmproj(src, mmproj)
    elif towers:
        src.towers = g, towers
    texts = Fields(meta, f"{path}: metadata")
    src.tokenizer, src.template, src.name = meta, texts.text("tokenizer.chat_template", None), texts.text("general.name", None)
    src.generation = gguf_sampling(meta)

    def told(value):
        """Files of ollama leave out what is the same for every Gemma 3."""
        return value if arch == GEMMA3 else Fields.REQUIRED

    n, embed = g.count("block_count", low=1, high=MAX_LAYERS), src.tensors.get("embed_tokens.weight")
    if embed is None:
        raise ExportError(f"{path}: tensor token_embd.weight is missing")
    heads = g.counts("attention.head_count", n, low=1)
    if len(set(heads)) != 1:
        raise ExportError(f"{path}: layers differ in their number of heads: {shown(heads)}")
    kv_heads, widths = g.counts("attention.head_count_kv", n, low=1), g.counts("feed_forward_length", n, low=1)
    c = src.config = {
        "model_type": arch + "_text", "num_hidden_layers": n, "hidden_size": g.count("embedding_length", low=1), "vocab_size": embed.shape[0],
        "num_attention_heads": heads[0], "num_key_value_heads": kv_heads[0], "sliding_window": g.count("attention.sliding_window"),
        "max_position_embeddings": g.count("context_length"),
        "rms_norm_eps": g.number("attention.layer_norm_rms_epsilon", told(1e-6)),
        "final_logit_softcapping": g.number("final_logit_softcapping", 0.0), "tie_word_embeddings": "lm_head.weight" not in src.tensors,
        "intermediate_size": widths[0], "feed_forward_lengths": widths,
    }
    pattern = g.get("attention.sliding_window_pattern", 6)
    if isinstance(pattern, list):
        sliding = [bool(kind) for kind in g.list("attention.sliding_window_pattern", n)]
    else:
        every = g.count("attention.sliding_window_pattern", 6, low=1)
        sliding = [(i + 1) % every != 0 for i in range(n)]
    c["layer_types"] = ["sliding_attention" if s else "full_attention" for s in sliding]
    local = g.get("rope.local.freq_base", 10000.0)  # as ollama calls it
    rope = c["rope_parameters"] = {
        "sliding_attention": {"rope_type": "default", "rope_theta": g.number("rope.freq_base_swa", local)},
        "full_attention": {"rope_type": "default", "rope_theta": g.number("rope.freq_base", told(1e6))}}
    if arch == GEMMA4:
        gguf_gemma4(src, g, c, rope, sliding, kv_heads)
    else:
        gguf_gemma3(g, c, rope)
    return src

# ---- Text decoder ---------------------------------------------------------------------------------

# flags of g4_config and g4_layer_config
CONFIG_TIED, CONFIG_V_NORM, CONFIG_IMAGE_BIDIR, CONFIG_CHAT = 1, 2, 4, 8
LAYER_FULL, LAYER_K_EQ_V, LAYER_MOE, LAYER_SCALAR = 1, 2, 4, 8

GEMMA4, GEMMA3 = "gemma4", "gemma3"
MODEL_TYPES = {"gemma4": GEMMA4, "gemma4_text": GEMMA4, "gemma3": GEMMA3, "gemma3_text": GEMMA3}


# Bounds of engine/file.c: what lies outside is refused there too, and keeps sizes and loops here small.
MAX_LAYERS, MAX_DIM, MAX_HEADS, MAX_HEAD_DIM, MAX_MLP, MAX_POSITIONS = 512, 1 << 16, 1024, 1024, 1 << 18, 1 << 24
ABOVE_0 = 1e-37  # of float32
MAX_PLE_DIM, MAX_EXPERTS, MAX_EXPERT_DIM, MAX_GROUP = 1024, 1024, 1 << 17, 64


class TextModel:
    """The decoder's configuration, taken from any of the ways it is written; see MODEL.md for what the numbers mean."""

    def __init__(self, src):
        outer = Fields(src.config, f"{src.path}: config")
        self.family = MODEL_TYPES.get(outer.text("model_type", None))
        if self.family is None:
            raise ExportError(f"{src.path}: model_type {shown(src.config.get('model_type'))} is not one of {', '.join(MODEL_TYPES)}")
        c = self.config = outer.section("text_config") or outer
        self.path, self.is_gguf = src.path, src.is_gguf
        self.n_layers, self.hidden = c.count("num_hidden_layers", low=1, high=MAX_LAYERS), c.count("hidden_size", low=1, high=MAX_DIM)
        self.n_vocab = c.count("vocab_size", low=1, high=TOKENIZER_MAX_IDS - 1)
        self.n_heads, self.window = c.count("num_attention_heads", low=1, high=MAX_HEADS), c.count("sliding_window", low=1, high=MAX_POSITIONS)
        self.max_ctx = c.count("max_position_embeddings", 131072, low=1, high=MAX_POSITIONS)
        self.eps = c.number("rms_norm_eps", 1e-6, low=ABOVE_0, high=1)
        self.softcap = c.number("final_logit_softcapping", 0, high=1e6)
        # The class that loads the checkpoint asks the outer configuration, also where the text's own says something else.
        self.tied = outer.flag("tie_word_embeddings", True) and not has_own_head(src)
        c.only("hidden_activation", "gelu_pytorch_tanh", "gelu_pytorch_tanh")
        c.only("attention_bias", False, False)
        c.only("attn_logit_softcapping", None)

        kinds = c.get("layer_types", None)
        if kinds is None:
            every = c.count("sliding_window_pattern", c.get("_sliding_window_pattern", 6), low=1)
            kinds = ["full_attention" if (i + 1) % every == 0 else "sliding_attention" for i in range(self.n_layers)]
        if not isinstance(kinds, list) or len(kinds) != self.n_layers or not all(kind in ("full_attention", "sliding_attention") for kind in kinds):
            raise ExportError(f"{src.path}: config: layer_types must be {self.n_layers} times full_attention or sliding_attention")
        self.full = [kind == "full_attention" for kind in kinds]

        if self.family == GEMMA4:
            self.gemma4()
        else:
            self.gemma3()
        for i in range(self.n_layers):
            heads, dim = self.n_kv_heads[i], self.head_dim[i]
            if not 1 <= heads <= self.n_heads <= heads * MAX_GROUP or self.n_heads % heads or dim % 2 or not 2 <= dim <= MAX_HEAD_DIM:
                raise ExportError(f"{src.path}: layer {i} has {self.n_heads} heads over {heads} of keys, of {dim}")

    def gemma4(self):
        c, n = self.config, self.n_layers
        c.only("use_bidirectional_attention", "vision", "vision")
        self.image_bidir = c.get("use_bidirectional_attention", None) == "vision"
        self.v_norm, self.norm_add, self.attn_scale = True, 0.0, 1.0
        # Full layers have their own head size and, with attention_k_eq_v, their own number of key/value heads. The hub writes
        # global_* fields, transformers 5.24 writes one record for each layer that differs.
        self.k_eq_v = c.flag("attention_k_eq_v")
        per_layer = c.section("per_layer_config")
        if per_layer is None:
            full = {"head_dim": c.count("global_head_dim", 512, high=MAX_HEAD_DIM)}
            if self.k_eq_v and c.get("num_global_key_value_heads", None) is not None:
                full["num_key_value_heads"] = c.count("num_global_key_value_heads")
            per_layer = Fields({str(i): full for i in range(n) if self.full[i]}, c.where)
        self.head_dim, self.n_kv_heads = [c.count("head_dim", high=MAX_HEAD_DIM)] * n, [c.count("num_key_value_heads")] * n
        for i in per_layer.values:
            override = per_layer.section(i, {})
            if str(i) not in map(str, range(n)):
                raise ExportError(f"{per_layer.where}: {shown(i)} is not a layer")
            for key, value in override.values.items():
                if key not in ("head_dim", "num_key_value_heads"):
                    raise ExportError(f"{override.where}: sets {key} = {shown(value)}, which is not supported")
                (self.head_dim if key == "head_dim" else self.n_kv_heads)[int(i)] = override.count(key, high=MAX_HEAD_DIM)
        self.ple_dim = c.count("hidden_size_per_layer_input", 0, high=MAX_PLE_DIM)
        if self.ple_dim:
            c.only("vocab_size_per_layer_input", self.n_vocab, self.n_vocab)
        # The last layers read keys and values of the last layer of their kind that has its own.
        first_shared = n - c.count("num_kv_shared_layers", 0, high=n)
        self.kv_source = list(range(n))
        for i in range(first_shared, n):
            owners = [j for j in range(first_shared) if self.full[j] == self.full[i]]
            if not owners:
                raise ExportError(f"{self.path}: config: layer {i} shares keys, but no layer of its kind owns any")
            self.kv_source[i] = owners[-1]
        # feed_forward_lengths is ours: a GGUF gives the width of each layer instead of use_double_wide_mlp.
        wide, width = 2 if c.flag("use_double_wide_mlp") else 1, c.count("intermediate_size", low=1, high=MAX_MLP // 2)
        widths = {"feed_forward_lengths": c.get("feed_forward_lengths", [width * (wide if i >= first_shared else 1) for i in range(n)])}
        self.mlp_dim = Fields(widths, c.where).counts("feed_forward_lengths", n, low=1, high=MAX_MLP)
        self.moe = c.flag("enable_moe_block")
        self.n_experts = c.count("num_experts", low=1, high=MAX_EXPERTS) if self.moe else 0
        self.n_experts_used = c.count("top_k_experts", low=1, high=self.n_experts) if self.moe else 0
        self.expert_dim = c.count("moe_intermediate_size", low=1, high=MAX_EXPERT_DIM) if self.moe else 0
        self.layer_scalar = True
        self.make_rope(c.section("rope_parameters", {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0}}))

    def gemma3(self):
        c, n = self.config, self.n_layers
        c.only("use_bidirectional_attention", False, False)
        self.image_bidir = self.v_norm = self.k_eq_v = self.moe = self.layer_scalar = False
        self.norm_add = 0.0 if self.is_gguf else 1.0  # a folder's norm weights are the factor less 1
        self.attn_scale = c.number("query_pre_attn_scalar", 256, low=1) ** -0.5
        self.head_dim, self.n_kv_heads = [c.count("head_dim", 256, high=MAX_HEAD_DIM)] * n, [c.count("num_key_value_heads", 4)] * n
        self.ple_dim = self.n_experts = self.n_experts_used = self.expert_dim = 0
        self.kv_source, self.mlp_dim = list(range(n)), [c.count("intermediate_size", low=1, high=MAX_MLP)] * n
        scaling = c.section("rope_scaling", {}).values
        self.make_rope(c.section("rope_parameters", {
            "sliding_attention": {"rope_type": "default", "rope_theta": c.get("rope_local_base_freq", 10000.0)},
            "full_attention": {"rope_type": "default", "rope_theta": c.get("rope_theta", 1000000.0), **scaling}}))

    def make_rope(self, rope):
        """Inverse frequencies (head_dim / 2) of sliding and full layers, in float64, rounded to float32 once."""
        self.rope = {}
        for name, kind, full in (("rope.sliding", "sliding_attention", False), ("rope.full", "full_attention", True)):
            dims = {self.head_dim[i] for i in range(self.n_layers) if self.full[i] == full}
            if not dims:
                continue
            if len(dims) > 1:
                raise ExportError(f"{self.path}: config: {kind} layers differ in head_dim: {sorted(dims)}")
            p, dim = rope.section(kind), dims.pop()
            if p is None:
                raise ExportError(f"{rope.where} has no {kind}")
            how = p.text("rope_type", p.get("type", "default"))
            if how not in ("default", "linear", "proportional"):
                raise ExportError(f"{p.where}: rope_type {shown(how)} is not supported")
            part = p.number("partial_rotary_factor", 1.0, high=1)
            if how != "proportional":
                p.only("partial_rotary_factor", 1.0, 1.0)
            factor = 1.0 if how == "default" else p.number("factor", 1.0, low=1e-3)
            turned = int(part * dim // 2)  # pairs that rotate
            inverse = np.zeros(dim // 2)
            inverse[:turned] = 1.0 / (p.number("rope_theta", low=1) ** (np.arange(turned) * 2.0 / dim)) / factor
            self.rope[name] = inverse.astype(np.float32)


def has_own_head(src):
    """Does a checkpoint that says its head is the embedding have another one? Then transformers uses that."""
    head, embed = src.tensors.get("lm_head.weight"), src.tensors.get("embed_tokens.weight")
    if head is None or embed is None:
        return False
    if (head.shape, head.dtype) != (embed.shape, embed.dtype):
        return True
    step, rows = max(1, Numbers.PIECE // head.cols), Packed.f32 if isinstance(head, Packed) else Stored.raw
    return any(not np.array_equal(*(rows(t, r, min(t.rows, r + step)) for t in (head, embed))) for r in range(0, head.rows, step))


# Of the matrices of a layer, in the order of l.N.act.
STATIC_SCALES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
                 "per_layer_input_gate", "per_layer_projection")


def static_scales(src, out, name, linears):
    """(len(linears), 2): the scales of their inputs and outputs, 0: none; of a checkpoint that has any."""
    if src.has_static_scales():
        scales = [[src.static_scale(f"{linear}.{side}put_activation_scale") for side in ("in", "out")] for linear in linears]
        out.plain(name, np.array(scales, np.float32))


def text_tensors(src, m, out, types):
    """Add the decoder's tensors to the model file, in the order of a token's way through it."""
    matrix_type, ple_type, head_type = types["type"], types["ple"], types["head"]
    more_type = types.get("more", matrix_type)  # of half of v and down

    def vector(name, stored_name, n, add=0.0):
        t = src.take(stored_name, (n,))
        out.plain(name, t.f32().reshape(n) + np.float32(add))

    def norm(name, stored_name, n):
        vector(name, stored_name, n, m.norm_add)

    def matrix(name, stored_name, rows, cols, type_, layout=GROUPS16):
        out.matrix(name, layout, type_, src.take(stored_name, (rows, cols)))

    matrix("embed", "embed_tokens.weight", m.n_vocab, m.hidden, head_type, GROUPS16 if m.tied else ROWS)
    if m.tied:
        src.ignore(r"lm_head\.weight", "the head, which is the embedding")
    for name, inverse in m.rope.items():
        out.plain(name, inverse)
    static_scales(src, out, "act", ("lm_head", "per_layer_model_projection"))
    if m.ple_dim:
        matrix("ple.embed", "embed_tokens_per_layer.weight", m.n_vocab, m.n_layers * m.ple_dim, ple_type, ROWS)
        matrix("ple.proj", "per_layer_model_projection.weight", m.n_layers * m.ple_dim, m.hidden, ple_type)
        norm("ple.norm", "per_layer_projection_norm.weight", m.ple_dim)
    for i in range(m.n_layers):
        s, l = f"layers.{i}.", f"l.{i}."
        q_dim, kv_dim, mlp = m.n_heads * m.head_dim[i], m.n_kv_heads[i] * m.head_dim[i], m.mlp_dim[i]
        careful_type = more_type if takes_more_bits(i, m.n_layers) else matrix_type  # of v and down
        norm(l + "attn_norm", s + "input_layernorm.weight", m.hidden)
        matrix(l + "q", s + "self_attn.q_proj.weight", q_dim, m.hidden, matrix_type)
        norm(l + "q_norm", s + "self_attn.q_norm.weight", m.head_dim[i])
        if m.kv_source[i] == i:
            matrix(l + "k", s + "self_attn.k_proj.weight", kv_dim, m.hidden, matrix_type)
            norm(l + "k_norm", s + "self_attn.k_norm.weight", m.head_dim[i])
            if not (m.k_eq_v and m.full[i]):
                matrix(l + "v", s + "self_attn.v_proj.weight", kv_dim, m.hidden, careful_type)
        else:
            src.ignore(re.escape(s) + r"self_attn\.(k_proj|v_proj|k_norm|v_norm)\.weight", "keys and values of layers that share another's")
        matrix(l + "o", s + "self_attn.o_proj.weight", m.hidden, q_dim, matrix_type)
        norm(l + "attn_post_norm", s + "post_attention_layernorm.weight", m.hidden)
        norm(l + "mlp_norm", s + "pre_feedforward_layernorm.weight", m.hidden)
        out.gate_up(l + "gate_up", matrix_type, mlp, m.hidden,
                    [[(src.take(s + "mlp.gate_proj.weight", (mlp, m.hidden)), 0), (src.take(s + "mlp.up_proj.weight", (mlp, m.hidden)), 0)]])
        matrix(l + "down", s + "mlp.down_proj.weight", m.hidden, mlp, careful_type)
        if m.moe:
            matrix(l + "router", s + "router.proj.weight", m.n_experts, m.hidden, F32)
            vector(l + "router_scale", s + "router.scale", m.hidden)
            vector(l + "expert_scale", s + "router.per_expert_scale", m.n_experts)
            norm(l + "moe_norm", s + "pre_feedforward_layernorm_2.weight", m.hidden)
            expert_tensors(src, m, out, s, l, matrix_type, careful_type)
            norm(l + "mlp_post_norm1", s + "post_feedforward_layernorm_1.weight", m.hidden)
            norm(l + "mlp_post_norm2", s + "post_feedforward_layernorm_2.weight", m.hidden)
        norm(l + "mlp_post_norm", s + "post_feedforward_layernorm.weight", m.hidden)
        if m.ple_dim:
            matrix(l + "ple_gate", s + "per_layer_input_gate.weight", m.ple_dim, m.hidden, ple_type)
            matrix(l + "ple_proj", s + "per_layer_projection.weight", m.hidden, m.ple_dim, ple_type)
            norm(l + "ple_norm", s + "post_per_layer_input_norm.weight", m.hidden)
        if m.layer_scalar:
            vector(l + "scalar", s + "layer_scalar", 1)
        static_scales(src, out, l + "act", [s + name for name in STATIC_SCALES])
    norm("norm", "norm.weight", m.hidden)
    if not m.tied:
        matrix("head", "lm_head.weight", m.n_vocab, m.hidden, head_type)
    src.ignore(r"(.*\.)?(rotary_emb\.)?(sliding_attention_|full_attention_)?(original_)?inv_freq", "inverse frequencies, computed from the configuration")
    src.ignore(r"(.*\.)?(mtp[._]|nextn\.|masked_embd_).*", "multi-token prediction, a drafter")
    if m.family == GEMMA3:
        src.ignore(r"(model\.)?(vision_tower|multi_modal_projector)\..*|(v|mm)\..*", "the vision tower of Gemma 3")


def takes_more_bits(i, n):
    """Layers whose v and down have more bits than the others, half of all: the first and the last eighth and every third between, as
    llama.cpp chooses them (docs/formats.md has what other halves cost)."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


def expert_tensors(src, m, out, s, l, type_, down_type):
    n, dim = m.n_experts, m.expert_dim

    def each(part, rows, cols):
        """(tensor, first row) of every expert: all in one tensor, or each in one of its own."""
        if src.has(f"{s}experts.0.{part}.weight"):
            return [(src.take(f"{s}experts.{e}.{part}.weight", (rows, cols)), 0) for e in range(n)]
        t = src.take(f"{s}experts.{part}", (n, rows, cols))
        return [(t, rows * e) for e in range(n)]

    if src.has(s + "experts.gate_up_proj"):  # gate first
        both = each("gate_up_proj", 2 * dim, m.hidden)
        parts = [[(t, first), (t, first + dim)] for t, first in both]
    else:
        parts = [list(pair) for pair in zip(each("gate_proj", dim, m.hidden), each("up_proj", dim, m.hidden))]
    out.gate_up(l + "experts.gate_up", type_, dim, m.hidden, parts, experts=True)
    out.experts(l + "experts.down", down_type, m.hidden, dim, each("down_proj", m.hidden, dim))


# ---- Vision and audio towers ----------------------------------------------------------------------

NO_BOUND = float(np.finfo(np.float32).max)  # a clip bound that was never there
MAX_AUDIO_CONTEXT = 64  # G4_MAX_AUDIO_CONTEXT

# An mmproj's names of what stands behind vision_tower.encoder.layers.N. and audio_tower.layers.N.
MMPROJ_VISION = {
    "self_attn.q_proj.linear": "attn_q",
    "self_attn.k_proj.linear": "attn_k",
    "self_attn.v_proj.linear": "attn_v",
    "self_attn.o_proj.linear": "attn_out",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj.linear": "ffn_gate",
    "mlp.up_proj.linear": "ffn_up",
    "mlp.down_proj.linear": "ffn_down",
    "input_layernorm": "ln1",
    "post_attention_layernorm": "attn_post_norm",
    "pre_feedforward_layernorm": "ln2",
    "post_feedforward_layernorm": "ffn_post_norm",
}
MMPROJ_AUDIO = {
    "feed_forward1.ffw_layer_1.linear": "ffn_up",
    "feed_forward1.ffw_layer_2.linear": "ffn_down",
    "feed_forward1.pre_layer_norm": "ffn_norm",
    "feed_forward1.post_layer_norm": "ffn_post_norm",
    "feed_forward2.ffw_layer_1.linear": "ffn_up_1",
    "feed_forward2.ffw_layer_2.linear": "ffn_down_1",
    "feed_forward2.pre_layer_norm": "ffn_norm_1",
    "feed_forward2.post_layer_norm": "ffn_post_norm_1",
    "self_attn.q_proj.linear": "attn_q",
    "self_attn.k_proj.linear": "attn_k",
    "self_attn.v_proj.linear": "attn_v",
    "self_attn.post.linear": "attn_out",
    "self_attn.relative_k_proj": "attn_k_rel",
    "self_attn.per_dim_scale": "per_dim_scale",
    "norm_pre_attn": "attn_pre_norm",
    "norm_post_attn": "attn_post_norm",
    "norm_out": "ln2",
    # conv_norm and norm_conv stand for each other there.
    "lconv1d.pre_layer_norm": "conv_norm",
    "lconv1d.conv_norm": "norm_conv",
    "lconv1d.depthwise_conv1d": "conv_dw",
    "lconv1d.linear_start.linear": "conv_pw1",
    "lconv1d.linear_end.linear": "conv_pw2",
}
MMPROJ_NAMES = {
    "v.patch_embd": "vision_tower.patch_embedder.input_proj",
    "v.std_bias": "vision_tower.std_bias",
    "v.std_scale": "vision_tower.std_scale",
    "v.position_embd": "vision_tower.patch_embedder.position_embedding_table",
    "mm.input_projection": "embed_vision.embedding_projection",
    "a.conv1d.0": "audio_tower.subsample_conv_projection.layer0.conv",
    "a.conv1d.0.norm": "audio_tower.subsample_conv_projection.layer0.norm",
    "a.conv1d.1": "audio_tower.subsample_conv_projection.layer1.conv",
    "a.conv1d.1.norm": "audio_tower.subsample_conv_projection.layer1.norm",
    "a.input_projection": "audio_tower.subsample_conv_projection.input_proj_linear",
    "a.pre_encode.out": "audio_tower.output_proj",
    "mm.a.input_projection": "embed_audio.embedding_projection",
}
# Where ollama, which keeps the towers beside the decoder, has other names than an mmproj.
OLLAMA_AUDIO = {"norm_pre_attn": "ln1", "norm_post_attn": "ln2", "norm_out": "layer_pre_norm", "self_attn.relative_k_proj": "linear_pos"}
OLLAMA_NAMES = {"a.pre_encode.out": "audio_tower.subsample_conv_projection.input_proj_linear", "mm.a.fc": "audio_tower.output_proj"}
OLLAMA_ONLY = "mm.a.fc.weight"  # tells its audio tower from an mmproj's
BOUNDS = ("input_min", "input_max", "output_min", "output_max")
CLIPPED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
AUDIO_CLIPPED = ("feed_forward1.ffw_layer_1", "feed_forward1.ffw_layer_2", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                 "self_attn.post", "lconv1d.linear_start", "lconv1d.linear_end", "feed_forward2.ffw_layer_1", "feed_forward2.ffw_layer_2")


def read_mmproj(src, path):
    """(metadata as Fields, tensors) of the towers that llama.cpp keeps in a file of their own."""
    meta, tensors = read_gguf_parts(src, path)
    if meta.get("general.architecture") != "clip":
        raise ExportError(f"{path}: architecture {shown(meta.get('general.architecture'))} is no mmproj's, which is 'clip'")
    g = Fields({key.removeprefix("clip."): value for key, value in meta.items() if key.startswith("clip.")}, f"{path}: metadata of clip")
    for tower, kind in (("vision", "gemma4v"), ("audio", "gemma4a")):
        found = g.text(f"{tower}.projector_type", g.text("projector_type", None))
        if g.flag(f"has_{tower}_encoder") and found != kind:
            g.refuse(f"{tower}.projector_type", found, repr(kind))
        if not g.flag(f"has_{tower}_encoder"):
            g.values.pop(f"{tower}.block_count", None)
    return g, tensors


def tower_name(name, is_ollama):
    """What a tensor of a GGUF's towers is called in a folder; itself, if it is not known there."""
    layers = {"v": ("vision_tower.encoder.layers.", MMPROJ_VISION),
              "a": ("audio_tower.layers.", {**MMPROJ_AUDIO, **OLLAMA_AUDIO} if is_ollama else MMPROJ_AUDIO)}
    names = {**MMPROJ_NAMES, **OLLAMA_NAMES} if is_ollama else MMPROJ_NAMES
    stem, _, leaf = name.rpartition(".")
    canonical = names.get(name) or names.get(stem)
    block = re.fullmatch(r"([va])\.blk\.(\d+)\.(.+)", stem)
    if block:
        prefix, table = layers[block[1]]
        inside = next((ours for ours, there in table.items() if there == block[3]), None)
        canonical = inside and prefix + block[2] + "." + inside
    if canonical is None:
        return name
    if leaf in BOUNDS:
        return canonical.removesuffix(".linear") + "." + leaf
    if leaf in ("weight", "bias") and not canonical.endswith(("per_dim_scale", "position_embedding_table")):
        return canonical + "." + leaf
    return canonical


def unpack_bounds(src, layers):
    """The bounds of all linears of a vision tower, which some files of ollama have in one tensor: (layers, 7, 4), then 4 of the
    projection, which is not clipped. Two zeros stand for bounds that were not there."""
    t = src.take("v.clamp_data", (28 * layers + 4,))
    if t.dtype not in SAFETENSORS_TYPES:
        raise ExportError(f"{src.path}: tensor v.clamp_data is of type {t.dtype}")
    packed = t.plain(0, 28 * layers).reshape(-1, 4)
    for row, name in zip(packed, (f"vision_tower.encoder.layers.{layer}.{part}" for layer in range(layers) for part in CLIPPED)):
        for i, key in enumerate(BOUNDS):
            if row[i // 2 * 2:i // 2 * 2 + 2].any() and not src.has(f"{name}.{key}"):
                src.add(f"{name}.{key}", Stored.of("v.clamp_data", row[i:i + 1]))


def open_towers(src):
    """Add the tensors of a GGUF's towers to src under their names in a folder, and give src.config their configurations."""
    g, tensors = src.towers
    is_ollama = OLLAMA_ONLY in tensors
    for name, t in tensors.items():
        canonical = tower_name(name, is_ollama)
        if canonical.endswith("patch_embedder.input_proj.weight") and len(t.shape) == 4:  # (n, channel, row, column)
            n, channels, high, wide = t.shape
            t = Stored.of(name, t.f32().reshape(t.shape).transpose(0, 2, 3, 1).reshape(n, high * wide * channels))
        src.add(canonical, t)
    src.scales_are_softplus = True

    def dim(name, axis, n_dims):
        t = src.tensors.get(name)
        if t is None or len(t.shape) not in n_dims:
            raise ExportError(f"{g.where}: no tensor of {n_dims[0]} dimensions for {name}")
        return t.shape[axis]

    layers = g.count("vision.block_count", 0, high=MAX_LAYERS)
    if layers:
        if src.has("v.clamp_data"):
            unpack_bounds(src, layers)
        src.config["vision_config"] = {
            "num_hidden_layers": layers,
            "hidden_size": g.count("vision.embedding_length"),
            "num_attention_heads": g.count("vision.attention.head_count"),
            "intermediate_size": g.count("vision.feed_forward_length"),
            "head_dim": dim("vision_tower.encoder.layers.0.self_attn.q_norm.weight", 0, (1,)),
            "patch_size": g.count("vision.patch_size"),
            "pooling_kernel_size": g.count("vision.projector.scale_factor", 3),
            "rms_norm_eps": g.number("vision.attention.layer_norm_epsilon"),
            "position_embedding_size": dim("vision_tower.patch_embedder.position_embedding_table", 1, (3,)),
            "standardize": src.has("vision_tower.std_bias"),
            "use_clipped_linears": any(
                name.startswith("vision_tower.") and name.endswith(BOUNDS) for name in src.tensors
            ),
        }
        heads = dim("vision_tower.encoder.layers.0.self_attn.k_proj.linear.weight", 0, (2,)) // src.config["vision_config"]["head_dim"]
        src.config["vision_config"]["num_key_value_heads"] = heads
    layers = g.count("audio.block_count", 0, high=MAX_LAYERS)
    if layers:
        # Chunk, context, cap, clipping and residual weight are not stored, and some files have a wrong epsilon: the
        # family's values stand in tower_config.
        src.config["audio_config"] = {
            "num_hidden_layers": layers,
            "hidden_size": g.count("audio.embedding_length"),
            "num_attention_heads": g.count("audio.attention.head_count"),
            "subsampling_conv_channels": [
                dim(f"audio_tower.subsample_conv_projection.layer{i}.conv.weight", 0, (4,)) for i in (0, 1)
            ],
            "conv_kernel_size": dim("audio_tower.layers.0.lconv1d.depthwise_conv1d.weight", -1, (2, 3)),
            "output_proj_dims": dim("audio_tower.output_proj.weight", 0, (2,)),
        }


def tower_config(src):
    """The fields of g4_config for the towers that the checkpoint has, and how many heads of keys the vision tower has."""
    out, kv_heads = {}, 0
    config = Fields(src.config, f"{src.path}: config")
    c = config.section("vision_config")
    if c is not None:
        heads = c.count("num_attention_heads", 12, low=1, high=256)
        kv_heads = c.count("num_key_value_heads", heads, low=1, high=heads)
        if heads % kv_heads:
            c.refuse("num_key_value_heads", kv_heads, f"a divisor of {heads} heads")
        c.only("hidden_activation", "gelu_pytorch_tanh", "gelu_pytorch_tanh")
        c.only("attention_bias", False, False)
        rope = c.section("rope_parameters", {})
        if rope.get("rope_type", "axial") not in ("default", "axial"):
            rope.refuse("rope_type", rope.get("rope_type"), "'default' or 'axial'")
        out.update(
            v_layers=c.count("num_hidden_layers", 16, low=1, high=MAX_LAYERS),
            v_hidden=c.count("hidden_size", 768, low=1, high=1 << 14),
            v_heads=heads,
            v_head_dim=c.count("head_dim", 64, low=4, high=MAX_HEAD_DIM),
            v_mlp=c.count("intermediate_size", 3072, low=1, high=MAX_DIM),
            v_patch=c.count("patch_size", 16, low=1, high=64),
            v_pool=c.count("pooling_kernel_size", 3, low=1, high=4),
            v_n_pos=c.count("position_embedding_size", 10240, low=1, high=MAX_DIM),
            v_default_tokens=src.image_tokens,
            v_flags=1 * c.flag("standardize") | 2 * c.flag("use_clipped_linears"),
            v_eps=c.number("rms_norm_eps", 1e-6, low=ABOVE_0, high=1),
            v_rope_theta=rope.number("rope_theta", 100.0, low=1, high=1e12),
        )
        if out["v_head_dim"] % 4:
            c.refuse("head_dim", out["v_head_dim"], "a multiple of 4")
    c = config.section("audio_config")
    if c is not None:
        chunk, left, right = (
            c.count(key, value, high=1 << 20)
            for key, value in (
                ("attention_chunk_size", 12),
                ("attention_context_left", 13),
                ("attention_context_right", 0),
            )
        )
        # Then the chunks do not show, and a relative key's row is its distance.
        if right != 0 or (chunk + left - 1) // 2 != left - 1 or not 2 <= left <= MAX_AUDIO_CONTEXT + 1:
            raise ExportError(f"{c.where}: attention of chunk {chunk}, context {left} and {right} is not supported")
        c.only("hidden_act", "silu", "silu")
        conv = c.get("subsampling_conv_channels", [128, 32])
        if not isinstance(conv, (list, tuple)) or len(conv) != 2 or conv[0] != 128:
            raise ExportError(f"{c.where}: subsampling_conv_channels = {shown(conv)}; only [128, n] works, in the reference too")
        out.update(
            a_layers=c.count("num_hidden_layers", 12, low=1, high=MAX_LAYERS),
            a_hidden=c.count("hidden_size", 1024, low=2, high=1 << 14),
            a_heads=c.count("num_attention_heads", 8, low=1, high=1 << 14),
            a_conv0=128,
            a_conv1=c.checked_count("subsampling_conv_channels[1]", conv[1], low=1, high=1024),
            a_kernel=c.count("conv_kernel_size", 5, low=1, high=64),
            a_context=left - 1,
            a_out=c.count("output_proj_dims", 1536, low=1, high=MAX_DIM),
            a_eps=c.number("rms_norm_eps", 1e-6, low=ABOVE_0, high=1),
            a_residual_weight=c.number("residual_weight", 0.5, high=1e6),
            a_logit_cap=c.number("attention_logit_cap", 50.0, low=1e-6),
            a_clip=c.number("gradient_clipping", 1e10, low=ABOVE_0),
        )
        if out["a_hidden"] % out["a_heads"] or out["a_hidden"] % 2:
            c.refuse("hidden_size", out["a_hidden"], f"a multiple of 2 and of {out['a_heads']} heads")
    return out, kv_heads


def tower_tensors(src, m, out, config, types, text_only):
    """Add the vision and audio towers and set their fields (v_*, a_*) in config.

    types: {"vision": type, "audio": type}."""
    if src.towers and not text_only:
        open_towers(src)
    elif src.towers:
        for name, t in src.towers[1].items():
            src.add(name, t)
    c, kv_heads = ({}, 0) if text_only or m.family != GEMMA4 else tower_config(src)
    config.update(c)
    if "v_layers" in c:
        vision_tensors(src, m, out, c, kv_heads, types["vision"])
    if "a_layers" in c:
        audio_tensors(src, m, out, c, types["audio"])
    if text_only:
        src.ignore(r"(vision_tower|audio_tower|embed_vision|embed_audio|v|a|mm)\..*", "vision and audio towers")


def clip_bounds(src, names):
    """(len(names), 4): the bounds of clipped linears."""
    bounds = np.tile(np.array([-NO_BOUND, NO_BOUND], np.float32), (len(names), 2))
    for i, name in enumerate(names):
        for j, key in enumerate(BOUNDS):
            stored_name = f"{name}.{key}"
            if not src.has(stored_name):
                continue
            t = src.take(stored_name, src.tensors[stored_name].shape)
            if t.dtype not in SAFETENSORS_TYPES or t.rows * t.cols != 1 or np.isnan(values := t.plain(0, 1))[0]:
                raise ExportError(f"{src.path}: tensor {t.name} is not one number")
            bounds[i, j] = np.clip(values[0], -NO_BOUND, NO_BOUND)
    return bounds


def vision_tensors(src, m, out, c, kv_heads, type_):
    hidden, heads, mlp = c["v_hidden"], c["v_heads"] * c["v_head_dim"], c["v_mlp"]

    def vector(name, stored_name, n):
        out.plain(name, src.take(stored_name, (n,)).f32().reshape(n))

    def matrix(name, stored_name, rows, cols):
        out.matrix(name, GROUPS16, type_, src.take(stored_name, (rows, cols)))

    def keys(name, stored_name):
        """Keys or values: of fewer heads than queries, each is written for all queries that read it (repeat_kv there)."""
        group = c["v_heads"] // kv_heads
        t = src.take(stored_name, (heads // group, hidden))
        out.matrix(name, GROUPS16, type_, t if group == 1 else t.repeated(kv_heads, group))

    static_scales(src, out, "v.act", ("vision_tower.patch_embedder.input_proj", "embed_vision.embedding_projection"))
    matrix("v.patch", "vision_tower.patch_embedder.input_proj.weight", hidden, 3 * c["v_patch"] ** 2)
    # Looked up, two rows a patch: as precise as the checkpoint, whatever the type of the matrices.
    pos = src.take("vision_tower.patch_embedder.position_embedding_table", (2, c["v_n_pos"], hidden))
    out.matrix(
        "v.pos", ROWS, F32 if type_ == F32 else BF16, Stored(pos.name, (2 * c["v_n_pos"], hidden), pos.dtype, pos.data)
    )
    for i in range(c["v_layers"]):
        s, l = f"vision_tower.encoder.layers.{i}.", f"v.{i}."
        vector(l + "attn_norm", s + "input_layernorm.weight", hidden)
        matrix(l + "q", s + "self_attn.q_proj.linear.weight", heads, hidden)
        keys(l + "k", s + "self_attn.k_proj.linear.weight")
        keys(l + "v", s + "self_attn.v_proj.linear.weight")
        matrix(l + "o", s + "self_attn.o_proj.linear.weight", hidden, heads)
        vector(l + "q_norm", s + "self_attn.q_norm.weight", c["v_head_dim"])
        vector(l + "k_norm", s + "self_attn.k_norm.weight", c["v_head_dim"])
        vector(l + "attn_post_norm", s + "post_attention_layernorm.weight", hidden)
        vector(l + "mlp_norm", s + "pre_feedforward_layernorm.weight", hidden)
        for name, rows, cols in (("gate", mlp, hidden), ("up", mlp, hidden), ("down", hidden, mlp)):
            matrix(l + name, s + f"mlp.{name}_proj.linear.weight", rows, cols)
        vector(l + "mlp_post_norm", s + "post_feedforward_layernorm.weight", hidden)
        out.plain(
            l + "bounds",
            clip_bounds(src, [s + x for x in CLIPPED]),
        )
        static_scales(src, out, l + "act", [s + x + ".linear" for x in CLIPPED])
    if c["v_flags"] & 1:
        vector("v.std_bias", "vision_tower.std_bias", hidden)
        vector("v.std_scale", "vision_tower.std_scale", hidden)
    matrix("v.proj", "embed_vision.embedding_projection.weight", m.hidden, hidden)


def audio_tensors(src, m, out, c, type_):
    hidden, conv0, conv1, kernel, context = c["a_hidden"], c["a_conv0"], c["a_conv1"], c["a_kernel"], c["a_context"]
    head_dim = hidden // c["a_heads"]

    def vector(name, stored_name, n):
        out.plain(name, src.take(stored_name, (n,)).f32().reshape(n))

    def matrix(name, stored_name, rows, cols):
        out.matrix(name, GROUPS16, type_, src.take(stored_name, (rows, cols)))

    def array(stored_name, *shape):
        return src.take(stored_name, shape).f32().reshape(shape)

    s = "audio_tower.subsample_conv_projection."
    out.plain("a.conv0", array(s + "layer0.conv.weight", conv0, 1, 3, 3).reshape(conv0, 9).T)
    vector("a.conv0_norm", s + "layer0.norm.weight", conv0)
    taps = array(s + "layer1.conv.weight", conv1, conv0, 3, 3).transpose(0, 2, 3, 1).reshape(conv1, 9 * conv0)
    out.matrix("a.conv1", GROUPS16, type_, Stored.of(s + "layer1.conv.weight", taps))
    vector("a.conv1_norm", s + "layer1.norm.weight", conv1)
    static_scales(src, out, "a.act", (s + "input_proj_linear", "embed_audio.embedding_projection"))
    matrix("a.in", s + "input_proj_linear.weight", hidden, conv0 // 4 * conv1)

    # Gemma4AudioRelPositionalEncoding: sin|cos of distance / timescale, timescales 1 to 10000.
    steps = max(hidden // 2 - 1, 1)
    angles = np.arange(context)[:, None] * np.exp(np.arange(hidden // 2) * (-math.log(10000.0) / steps))[None, :]
    distances = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    for i in range(c["a_layers"]):
        s, l = f"audio_tower.layers.{i}.", f"a.{i}."
        for n in (1, 2):
            f = s + f"feed_forward{n}."
            vector(l + f"ff{n}_norm", f + "pre_layer_norm.weight", hidden)
            matrix(l + f"ff{n}_up", f + "ffw_layer_1.linear.weight", 4 * hidden, hidden)
            matrix(l + f"ff{n}_down", f + "ffw_layer_2.linear.weight", hidden, 4 * hidden)
            vector(l + f"ff{n}_post_norm", f + "post_layer_norm.weight", hidden)
        vector(l + "attn_norm", s + "norm_pre_attn.weight", hidden)
        for name, part in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("post", "post")):
            matrix(l + name, s + f"self_attn.{part}.linear.weight", hidden, hidden)
        scale = array(s + "self_attn.per_dim_scale", head_dim).astype(np.float64)
        if not src.scales_are_softplus:
            scale = np.logaddexp(scale, 0.0)
        out.plain(l + "q_scale", scale * head_dim**-0.5 / math.log(2.0))
        out.plain(
            l + "rel_k", distances @ array(s + "self_attn.relative_k_proj.weight", hidden, hidden).astype(np.float64).T
        )
        vector(l + "attn_post_norm", s + "norm_post_attn.weight", hidden)
        vector(l + "conv_norm", s + "lconv1d.pre_layer_norm.weight", hidden)
        matrix(l + "conv_in", s + "lconv1d.linear_start.linear.weight", 2 * hidden, hidden)
        depthwise = s + "lconv1d.depthwise_conv1d.weight"  # (hidden, 1, kernel); a GGUF drops the 1
        shape = (
            (hidden, kernel) if src.has(depthwise) and len(src.tensors[depthwise].shape) == 2 else (hidden, 1, kernel)
        )
        out.plain(l + "conv", array(depthwise, *shape).reshape(hidden, kernel).T)
        vector(l + "conv_mid_norm", s + "lconv1d.conv_norm.weight", hidden)
        matrix(l + "conv_out", s + "lconv1d.linear_end.linear.weight", hidden, hidden)
        vector(l + "norm", s + "norm_out.weight", hidden)
        clipped = [s + name for name in AUDIO_CLIPPED]
        out.plain(l + "bounds", clip_bounds(src, clipped))
        static_scales(src, out, l + "act", [name + ".linear" for name in clipped])
    matrix("a.out", "audio_tower.output_proj.weight", c["a_out"], hidden)
    vector("a.out_bias", "audio_tower.output_proj.bias", c["a_out"])
    matrix("a.proj", "embed_audio.embedding_projection.weight", m.hidden, c["a_out"])


# ---- The model file ------------------------------------------------------------------------------

MAGIC, VERSION, ENDIAN = b"GEMMA4.C", 1, 0x01020304
HEADER = struct.Struct("<8sII Q 2Q Q 2Q 2Q 2Q Q 3Q")  # g4_file_header
ENTRY = struct.Struct("<64s 4I 3Q 2Q Q")              # g4_tensor_entry
LAYER = struct.Struct("<5I 12x")                      # g4_layer_config
CHECKSUM_FROM = 48
PAGE, BIG = 4096, 16 << 20

# g4_config, field by field: (name, struct format). Absent values are zero.
CONFIG_FIELDS = [
    ("size", "I"), ("layer_size", "I"),
    ("name", "64s"),
    ("flags", "I"),
    ("n_layers", "I"), ("hidden", "I"), ("n_vocab", "I"), ("n_heads", "I"), ("window", "I"), ("max_ctx", "I"),
    ("ple_dim", "I"),
    ("n_experts", "I"), ("n_experts_used", "I"), ("expert_dim", "I"),
    ("eps", "f"), ("attn_scale", "f"), ("softcap", "f"), ("embed_scale", "f"),
    ("chat_template", "I"),
    ("bos", "I"), ("eos", "I"), ("pad", "I"), ("unk", "I"),
    ("n_stop", "I"), ("stop", "7I"),
    ("temperature", "f"), ("top_p", "f"),
    ("top_k", "I"),
    ("image_begin", "I"), ("image_token", "I"), ("image_end", "I"),
    ("audio_begin", "I"), ("audio_token", "I"), ("audio_end", "I"), ("video_token", "I"),
    ("v_layers", "I"), ("v_hidden", "I"), ("v_heads", "I"), ("v_head_dim", "I"), ("v_mlp", "I"), ("v_patch", "I"), ("v_pool", "I"),
    ("v_n_pos", "I"), ("v_default_tokens", "I"),
    ("v_flags", "I"),
    ("v_eps", "f"), ("v_rope_theta", "f"),
    ("a_layers", "I"), ("a_hidden", "I"), ("a_heads", "I"), ("a_conv0", "I"), ("a_conv1", "I"), ("a_kernel", "I"), ("a_context", "I"),
    ("a_out", "I"),
    ("a_eps", "f"), ("a_residual_weight", "f"), ("a_logit_cap", "f"), ("a_clip", "f"),
    ("a_flags", "I"),
    ("reserved", "64s"),
    ("source", "96s"), ("source_sha256", "68s"),
]
CONFIG = struct.Struct("<" + "".join(fmt for _, fmt in CONFIG_FIELDS))


def field_text(text, size):
    """text in a field of so many bytes with a NUL behind it: whole characters, and none that a terminal would obey."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text.encode(errors="replace")[:size - 1].decode(errors="ignore").encode()


def pack_config(config, layers):
    """config: {field: value}; layers: g4_layer_config records as tuples."""
    unknown = set(config) - {name for name, _ in CONFIG_FIELDS}
    assert not unknown, unknown
    values = []
    for name, fmt in CONFIG_FIELDS:
        value = {"size": CONFIG.size, "layer_size": LAYER.size}.get(name, config.get(name, 0))
        if fmt == "7I":
            values += list(value) + [0] * (7 - len(value))
        elif fmt.endswith("s"):
            values.append(field_text(value or "", int(fmt[:-1])))
        else:
            values.append(value)
    return CONFIG.pack(*values) + b"".join(LAYER.pack(*layer) for layer in layers)


def on_lattice(parts, rows, cols):
    """Do most blocks of a tensor lie on a 4-bit lattice? Looks at up to 4096 of them, spread over it; parts: as an Entry has them."""
    found = seen = 0
    places = [(part, r) for matrix in parts[::max(1, len(parts) // 8)] for part in matrix for r in range(0, rows, max(1, rows // 16))]
    whole = cols // BLOCK * BLOCK or cols
    for (stored, first), r in places:
        row = stored.f32(first + r, first + r + 1)[:, :min(whole, 64 * BLOCK)]
        x = ModelFile.pad(row, 1, round_up(row.shape[1], BLOCK)).reshape(-1, BLOCK)
        x = x[(x != 0).sum(axis=1) > 1]  # one weight alone is on every lattice
        found, seen = found + int(fit_lattice(x, stored.rounded)[2].sum()), seen + len(x)
    return found * 2 > seen


class Auto:
    """A type that each tensor says itself: its own, or what that becomes. floats: {type of the source: type} of those without
    blocks; lattice: if these lie on a 4-bit lattice, q4_0."""

    def __init__(self, floats, lattice=False):
        self.becomes = {**GGUF_BECOMES, **{t.gguf: i for i, t in enumerate(TYPES) if t.scales and t.gguf}, **floats}
        self.lattice = lattice

    def choose(self, parts, rows, cols):
        sources = {stored.dtype for matrix in parts for stored, _ in matrix}
        if self.lattice and sources <= set(SAFETENSORS_TYPES) and on_lattice(parts, rows, cols):
            return Q4_0
        types = {stored.becomes if isinstance(stored, Packed) else self.becomes[stored.dtype] for matrix in parts for stored, _ in matrix}
        types = {PADDED.get(i, i) if round_up(cols, TYPES[i].step) > 1.05 * round_up(cols, BLOCK) else i for i in types}
        # Gate and up in one matrix have one type: the smallest that holds both, else the larger of them.
        by_size = sorted(range(len(TYPES)), key=lambda i: TYPES[i].step_bytes / TYPES[i].step)
        both = [i for i in by_size if all(i == other or TYPES[i].holds(TYPES[other]) for other in types)]
        return both[0] if both else max(types, key=by_size.index)


class Entry:
    """One tensor to write. parts: for each stored matrix (one, or one for each expert) the source tensors whose rows it holds,
    as (Stored, first row): one, or gate and up in alternating groups of 16 rows."""

    def __init__(self, name, type_, layout, dims, rows, cols, parts):
        self.is_auto = isinstance(type_, Auto)
        self.type = type_.choose(parts, rows, cols) if self.is_auto else type_
        self.name, self.layout, self.dims, self.parts = name, layout, tuple(dims), parts
        self.rows, self.cols = rows, cols  # of one part of one matrix, unpadded
        self.scale = SCALE_NONE
        self.exact = self.blocks = 0       # blocks on a lattice, blocks looked at
        size = rows * cols * 4 if layout == PLAIN else len(parts[0]) * matrix_bytes(self.type, layout, rows, cols)
        self.stride = round_up(size, PAGE) if len(dims) == 3 else size
        self.size = self.stride * len(parts)
        self.pad = self.stride - size      # zeros after each expert
        self.align = PAGE if len(dims) == 3 or self.size >= BIG else 64
        self.offset = 0

    def stored(self):
        return [stored for parts in self.parts for stored, _ in parts]

    def sources(self):
        return {stored.dtype for stored in self.stored()}


class ModelFile:
    """Collects tensors, then writes them: slice by slice, in threads, so that memory stays small for any size."""

    SLICE = 4 << 20  # elements converted at a time
    THREADS = min(2, os.cpu_count() or 1)

    def __init__(self, search=False, statistics=None):
        self.entries, self.names = [], set()
        self.search, self.statistics = search, statistics  # are scales searched? with whose weights

    def add(self, entry):
        if len(entry.name) > 63 or entry.name in self.names:
            raise ExportError(f"tensor name {entry.name} is too long or used twice")
        self.names.add(entry.name)
        self.entries.append(entry)

    def plain(self, name, array):
        """A float32 array of one or two dimensions, as it is."""
        t = Stored.of(name, array)
        self.add(Entry(name, F32, PLAIN, t.shape, t.rows, t.cols, [[(t, 0)]]))

    def matrix(self, name, layout, type_, stored):
        self.add(Entry(name, type_, layout, stored.shape, stored.rows, stored.cols, [[(stored, 0)]]))

    def gate_up(self, name, type_, rows, cols, parts, experts=False):
        """parts: [[(gate, first row), (up, first row)], ...], one pair for each expert."""
        dims = (2 * round_up(rows, 16), cols)
        self.add(Entry(name, type_, GROUPS16, (len(parts), *dims) if experts else dims, rows, cols, parts))

    def experts(self, name, type_, rows, cols, parts):
        """parts: [(tensor, first row), ...], one for each expert."""
        self.add(Entry(name, type_, GROUPS16, (len(parts), rows, cols), rows, cols, [[part] for part in parts]))

    # -- converting

    @staticmethod
    def pad(x, rows, cols):
        """x as the upper left corner of a (rows, cols) array of zeros."""
        if x.shape == (rows, cols):
            return x
        out = np.zeros((rows, cols), x.dtype)
        out[:x.shape[0], :x.shape[1]] = x
        return out

    def part_slice(self, e, i, part, r0, r1):
        """Rows r0..r1 (padded rows) of one part of matrix i -> (rows, scales), padded; and how many blocks were exact."""
        stored, first = part
        last, t, exact = min(r1, e.rows), TYPES[e.type], 0
        a, b = first + min(r0, last), first + last
        kept = stored.kept_bf16(e.type, a, b) if e.scale == SCALE_BF16 else stored.kept(e.type, a, b)
        if kept:
            q, scales = kept
            exact = scales[0].size if e.scale == SCALE_BF16 else 0
        elif not t.scales:
            q, scales = stored.f32(a, b), []
            if e.type == BF16 and q.size and np.abs(q).max() > MAX_BF16:
                raise ExportError(f"{stored.where}: a weight is too large for bf16: try --type f32")
            q = q if e.type == F32 else f32_to_bf16(q)
        else:
            cols = round_up(e.cols, t.block)
            x = self.pad(stored.f32(a, b), b - a, cols)
            q, scales, exact = self.rounded(e, i, x, stored)
            q, scales = q.reshape(b - a, cols), [s.reshape(b - a, -1) for s in scales]
        n, cols = r1 - r0, round_up(e.cols, t.step)
        return self.pad(q, n, cols), [self.pad(s, n, cols // share) for s, (_, share) in zip(scales, t.scales)], exact

    def rounded(self, e, i, x, stored):
        """Rows of whole blocks -> q, scales of the blocks, and how many are exact."""
        t = TYPES[e.type]
        blocks = x.reshape(-1, t.block)
        if e.scale == SCALE_BF16:
            return self.on_lattice(blocks, stored)
        if not self.search or t.search is None or not x.size or stored.dtype not in SAFETENSORS_TYPES:
            return *t.quantize(blocks, stored.where), 0
        columns = self.statistics.of(e, i) if self.statistics else None
        w = np.ones((1, x.shape[1]), np.float32) if columns is None else self.pad(columns[None], 1, x.shape[1])
        w = np.broadcast_to(w, x.shape).reshape(-1, t.block)
        return *t.searched(blocks, w, stored.where), 0

    @staticmethod
    def on_lattice(x, stored):
        """x (n, 32) -> q, scales in bf16, and how many blocks are exact."""
        q, d, exact = fit_lattice(x, stored.rounded)
        off = np.flatnonzero(~exact)
        if off.size:
            q[off], d[off] = quantize_q4_0_bf16(x[off])
        return q, [d[:, None]], int(exact.sum())

    def convert(self, e, i, r0, r1):
        """The bytes of rows r0..r1 of matrix i and the number of exact blocks."""
        if e.layout == PLAIN:
            return e.parts[i][0][0].f32(r0, r1).tobytes(), 0
        rows, scales, exact = zip(*(self.part_slice(e, i, part, r0, r1) for part in e.parts[i]))
        rows, scales = self.interleave(rows), [self.interleave(arrays) for arrays in zip(*scales)]
        t = TYPES[e.type]
        return (t.groups16 if e.layout == GROUPS16 else t.rows)(rows, scales).tobytes(), sum(exact)

    @staticmethod
    def interleave(arrays):
        """Gate and up (n, cols) each -> (2 n, cols), in alternating groups of 16 rows; a single array as it is."""
        if len(arrays) == 1:
            return arrays[0]
        cols = arrays[0].shape[1]
        return np.stack([a.reshape(-1, 16, cols) for a in arrays], axis=1).reshape(-1, cols)

    def jobs(self):
        """(entry, matrix index, first row, end row) in the order of the file."""
        for e in self.entries:
            unit = 16 if e.layout == GROUPS16 else 1
            rows = round_up(e.rows, unit)
            step = max(1, self.SLICE // (round_up(e.cols, TYPES[e.type].step) * len(e.parts[0])) // unit) * unit
            for i in range(len(e.parts)):
                for r0 in range(0, rows, step):
                    yield e, i, r0, min(rows, r0 + step)

    def choose_scales(self):
        """Quantised types have f16 scales, except 4-bit tensors that lie on a lattice, or that are stored so: those keep the bf16
        scales they were trained with."""
        for e in self.entries:
            e.scale = SCALE_F16 if any(dtype == "<u2" for dtype, _ in TYPES[e.type].scales) else SCALE_NONE
            if e.type != Q4_0:
                continue
            packed = [stored.scales_are_bf16() for stored in e.stored() if isinstance(stored, Packed)]
            if all(packed) if packed else e.sources() <= set(SAFETENSORS_TYPES) and on_lattice(e.parts, e.rows, e.cols):
                e.scale = SCALE_BF16
                e.blocks = e.rows * (round_up(e.cols, BLOCK) // BLOCK) * len(e.parts[0]) * len(e.parts)

    # -- writing

    def write(self, path, config, layers, tokenizer, progress, source=None):
        """Write to a temporary file beside path, check it, rename it. On any failure nothing is left.

        source: its hash is computed while tensors are converted, so the head, which holds it, is written last."""
        size = len(pack_config(config, layers))
        tokenizer_offset = round_up(HEADER.size + size, 64)
        table_offset = round_up(tokenizer_offset + len(tokenizer), 64)
        data_offset = round_up(table_offset + len(self.entries) * ENTRY.size, 64)
        end = data_offset
        for e in self.entries:
            e.offset = round_up(end, e.align)
            end = e.offset + e.size
        folder = os.path.dirname(os.path.abspath(path))
        free = shutil.disk_usage(folder).free
        if free < end:
            raise ExportError(f"{path}: needs {size_text(end)}, only {size_text(free)} are free there")
        self.choose_scales()
        table = b"".join(ENTRY.pack(e.name.encode(), e.type, e.layout, e.scale, len(e.dims), *e.dims, *[1] * (3 - len(e.dims)),
                                    e.offset, e.size, 0) for e in self.entries)

        def header(total):
            return HEADER.pack(MAGIC, VERSION, ENDIAN, end, 0, 0, total, HEADER.size, size, tokenizer_offset, len(tokenizer),
                               table_offset, len(self.entries), data_offset, 0, 0, 0)

        def head(digest):
            out = bytearray(data_offset)
            config_bytes = pack_config({**config, "source_sha256": digest}, layers)
            for offset, data in ((0, header(0)), (HEADER.size, config_bytes), (tokenizer_offset, tokenizer), (table_offset, table)):
                out[offset:offset + len(data)] = data
            out[:HEADER.size] = header(checksum(bytes(out[CHECKSUM_FROM:])))
            return out

        temporary, stop = os.path.join(folder, f"{secrets.token_hex(8)}.g4.partial"), threading.Event()
        try:
            with open(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "r+b", buffering=0) as raw, \
                    concurrent.futures.ThreadPoolExecutor(1) as pool:
                digest = pool.submit(source.sha256, stop) if source else None
                try:
                    f = HugePageWriter(raw)
                    f.write(bytes(data_offset))
                    crcs = self.write_tensors(f, progress)
                    f.flush()
                    if f.tell() != end:
                        raise ExportError(f"{path}: wrote {f.tell()} bytes instead of {end}")
                    first = head(digest.result() if digest else "")
                finally:
                    stop.set()
                if os.pwrite(raw.fileno(), first, 0) != len(first):
                    raise ExportError(f"{path}: its header was not written whole")
                os.fsync(raw.fileno())
            check_file(File(temporary), first, self.entries, crcs)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        return end

    def write_tensors(self, f, progress):
        """All tensors in order; slices are converted by threads a little ahead of the writing. Returns {name: crc32}."""
        crcs = {}
        with concurrent.futures.ThreadPoolExecutor(self.THREADS) as pool:
            jobs, ahead = self.jobs(), collections.deque()
            try:
                while True:
                    while len(ahead) < self.THREADS + 1 and (job := next(jobs, None)):
                        e, i, r0, r1 = job
                        ahead.append((job, pool.submit(self.convert, e, i, r0, r1)))
                    if not ahead:
                        return crcs
                    (e, i, r0, r1), future = ahead.popleft()
                    data, exact = future.result()
                    if i == 0 and r0 == 0:
                        f.write(bytes(e.offset - f.tell()))
                    if r1 == round_up(e.rows, 16 if e.layout == GROUPS16 else 1):
                        data += bytes(e.pad)
                    f.write(data)
                    crcs[e.name] = zlib.crc32(data, crcs.get(e.name, 0))
                    e.exact += exact
                    progress(len(data))
            finally:
                for _, future in ahead:
                    future.cancel()


class HugePageWriter:
    """Writes whole pieces of 2 MB at multiples of 2 MB. Linux then holds the new file in huge pages (ext4 from 6.16), and the
    engine reads it faster than one written anyhow: until it leaves the cache, a file stays in the pages it was written with."""
    PIECE = 2 << 20

    def __init__(self, raw):
        self.raw, self.pending, self.written = raw, bytearray(), 0

    def tell(self):
        return self.written + len(self.pending)

    def write(self, data):
        self.pending += data
        self.hand_on(len(self.pending) // self.PIECE * self.PIECE)

    def flush(self):
        self.hand_on(len(self.pending))

    def hand_on(self, n):
        with memoryview(self.pending) as view:
            done = 0
            while done < n:
                done += self.raw.write(view[done:n])
        del self.pending[:n]
        self.written += n


def check_file(file, head, entries, crcs):
    """Read the file again: its head must be what was meant, every tensor's bytes what was converted."""
    if file.read(0, len(head)) != head:
        raise ExportError(f"{file.path}: the header reads back differently: a fault of the disk?")

    def crc(e):
        value = 0
        for piece in file.pieces(e.offset, e.offset + e.size):
            value = zlib.crc32(piece, value)
        return value

    with concurrent.futures.ThreadPoolExecutor(ModelFile.THREADS) as pool:
        for e, value in zip(entries, pool.map(crc, entries)):
            if value != crcs[e.name]:
                raise ExportError(f"{file.path}: tensor {e.name} reads back differently: a fault of the disk?")


# ---- Command line ---------------------------------------------------------------------------------

# sha256 of the official chat templates -> g4_template
TEMPLATES = {
    "ae53464bf3be25802b3a5b37def7fd89667067d7577049b3b2d74c4d8de4c6d4": 1,  # 31B and 26B, 2026-07
    "0a2c8073c878ab1da004bee933a998606537bbb62016310352c7285c3f01c5b5": 2,  # E2B and E4B, 2026-07
    "85a08664d16d8f3be4416c92427b3ac10df1024ac566cc0b4bc3bab409393f98": 3,  # 31B, 2026-04
}
TEMPLATE_NAMES = ("none", "31b-2026-07", "e2b-2026-07", "31b-2026-04")

MEDIA_TOKENS = {"image_begin": "<|image>", "image_token": "<|image|>", "image_end": "<image|>", "audio_begin": "<|audio>",
                "audio_token": "<|audio|>", "audio_end": "<audio|>", "video_token": "<|video|>"}


def choose_template(src, m, notes, named=None):
    """The number of the chat template; 0: none (a base model, or one whose template the engine does not know)."""
    if named is not None:
        return TEMPLATE_NAMES.index(named)
    text = Fields({"chat_template": src.template}, src.path).text("chat_template", None)
    if not text and src.is_gguf and m.family == GEMMA4:
        notes.append("it has no chat template: the model will complete text, without chat; --chat-template names one")
    if not text:
        return 0
    known = TEMPLATES.get(hashlib.sha256(text.encode(errors="replace")).hexdigest())
    if known:
        return known
    if m.family != GEMMA4 or "<|turn>" not in text:
        notes.append("its chat template is not one of Gemma 4's: the model will complete text, without chat")
        return 0
    # An edited copy. The cue for an empty thought and preserve_thinking tell the official versions apart.
    guess = 3 if "preserve_thinking" not in text else 1 if "<|channel>thought\\n<channel|>" in text else 2
    notes.append(f"its chat template is an edited one: {TEMPLATE_NAMES[guess]} is used instead")
    return guess


def token_ids(src, m, specials, template):
    """Ids that the engine must know, by the configuration or by their names in the tokenizer."""
    settings = [Fields(src.generation, f"{src.path}: generation settings"), m.config, Fields(src.config, f"{src.path}: config")]

    def listed(where, key):
        """The ids that stand there: none, one or a list of them; null is none."""
        value = where.get(key, None)
        return [where.checked_count(key, i, high=m.n_vocab - 1) for i in (value if isinstance(value, list) else [value]) if i is not None]

    def pick(key, name, default):
        if name in specials:
            return specials[name]
        return next((ids[0] for where in settings if (ids := listed(where, key))), default)

    ids = {"bos": pick("bos_token_id", "<bos>", 2), "eos": pick("eos_token_id", "<eos>", 1), "pad": pick("pad_token_id", "<pad>", 0),
           "unk": pick("unk_token_id", "<unk>", 3)}
    stop = [ids["eos"]] + next((found for where in settings if (found := listed(where, "eos_token_id"))), [])
    if template:
        stop += [specials[name] for name in ("<turn|>", "<|tool_response>") if name in specials]
    stop = list(dict.fromkeys(stop))
    if len(stop) > 7:
        raise ExportError(f"{src.path}: more than 7 ids end a reply: {shown(stop)}")
    ids.update(n_stop=len(stop), stop=stop)
    # A placeholder without media reads as padding in both tables, so a text-only file of a multimodal model keeps the ids.
    for field, key in (("image_begin", "boi_token_id"), ("image_token", "image_token_id"), ("image_end", "eoi_token_id"),
                       ("audio_begin", "boa_token_id"), ("audio_token", "audio_token_id"), ("audio_end", "eoa_token_index"),
                       ("video_token", "video_token_id")):
        value = specials.get(MEDIA_TOKENS[field]) if src.is_gguf else settings[-1].get(key, None)
        if m.family == GEMMA4 and value is not None and (value := settings[-1].checked_count(key, value)) < m.n_vocab:
            ids[field] = value
    for field, value in ids.items():
        if field != "n_stop" and max(value if field == "stop" else [value]) >= m.n_vocab:
            raise ExportError(f"{src.path}: token id {field} = {value} is not below the vocabulary's {m.n_vocab}")
    return ids


def model_config(src, m, name, specials, notes, template=None):
    """(fields of g4_config, layer records)."""
    template = choose_template(src, m, notes, template)
    g = Fields(src.generation, f"{src.path}: generation settings")
    greedy = g.get("do_sample", None) is False
    config = {
        "name": name,
        "flags": (CONFIG_TIED * m.tied | CONFIG_V_NORM * m.v_norm | CONFIG_IMAGE_BIDIR * m.image_bidir | CONFIG_CHAT * bool(template)),
        "n_layers": m.n_layers, "hidden": m.hidden, "n_vocab": m.n_vocab, "n_heads": m.n_heads, "window": m.window, "max_ctx": m.max_ctx,
        "ple_dim": m.ple_dim,
        "n_experts": m.n_experts, "n_experts_used": m.n_experts_used, "expert_dim": m.expert_dim,
        "eps": m.eps, "attn_scale": m.attn_scale, "softcap": m.softcap, "embed_scale": math.sqrt(m.hidden),
        "chat_template": template,
        "temperature": 0.0 if greedy else g.number("temperature", 1.0, high=100), "top_p": g.number("top_p", 0.95, high=1),
        "top_k": g.count("top_k", 64, high=1 << 22),
        **token_ids(src, m, specials, template),
    }
    layers = [(LAYER_FULL * m.full[i] | LAYER_K_EQ_V * (m.k_eq_v and m.full[i]) | LAYER_MOE * m.moe | LAYER_SCALAR * m.layer_scalar,
               m.n_kv_heads[i], m.head_dim[i], m.mlp_dim[i], m.kv_source[i]) for i in range(m.n_layers)]
    return config, layers


class Progress:
    """A bar on stderr: tqdm's where it is installed, else a line that is rewritten once a second."""

    def __init__(self, total, quiet):
        self.total, self.done, self.shown, self.start, self.bar = total, 0, 0.0, time.monotonic(), None
        self.quiet = quiet or not sys.stderr.isatty()
        if not self.quiet:
            try:
                from tqdm import tqdm
                self.bar = tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1000, leave=False)
            except ImportError:
                pass

    def __call__(self, n):
        self.done += n
        if self.bar:
            self.bar.update(n)
        elif not self.quiet and time.monotonic() - self.shown > 1:
            self.shown = time.monotonic()
            print(f"\r{100 * self.done / self.total:5.1f} %  {self.done / 1e6 / (self.shown - self.start + 1e-9):.0f} MB/s",
                  end="", file=sys.stderr, flush=True)

    def close(self):
        if self.bar:
            self.bar.close()
        elif not self.quiet:
            print("\r\033[K", end="", file=sys.stderr)


def output_path(path):
    """The file that path names, links followed: a regular one or none yet, in a folder that can be written."""
    if os.path.islink(path):
        path = os.path.realpath(path)
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise ExportError(f"{path}: No such file or directory: {folder}")
    if os.path.isdir(path) or not os.path.basename(path):
        raise ExportError(f"{path}: a folder: give the file to write")
    if os.path.exists(path) and not os.path.isfile(path):
        raise ExportError(f"{path}: not a regular file, and so not replaced")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ExportError(f"{path}: no files can be written in {folder}")
    return path


def open_source(where, mmproj=None):
    if mmproj and not os.path.isfile(where):
        raise ExportError(f"{where}: --mmproj goes with a .gguf file; the towers of a folder lie in it")
    if os.path.isdir(where):
        return open_folder(where)
    if os.path.isfile(where):
        return open_gguf(where, mmproj)
    if os.path.exists(where):
        raise ExportError(f"{where}: neither a folder nor a regular file")
    if where.count("/") > 1 or where.endswith(".gguf") or where.startswith((".", "/", "~")):
        raise ExportError(f"{where}: no such file or folder")
    return open_folder(download(where))


def source_name(where):
    """A hub's id as it is; of a file or folder its own name without those of the folders it lies in."""
    return os.path.basename(os.path.abspath(where)) if os.path.exists(where) else where


def download(hub_id):
    """A model of the Hugging Face hub -> its folder in the local cache."""
    try:
        import huggingface_hub
    except ImportError:
        raise ExportError(f"{hub_id}: no such file or folder; to fetch it as a hub id, install huggingface_hub") from None
    try:
        return huggingface_hub.snapshot_download(hub_id, allow_patterns=["*.safetensors", "*.json", "*.jinja"])
    except Exception as e:  # its errors are many, all with one cause: there is no such model to be had
        text = str(e).strip().splitlines()
        raise ExportError(f"{hub_id}: no such folder, and not to be had from the hub: {text[0] if text else type(e).__name__}") from None


def say(text):
    """A line on stderr; that nobody reads it is no reason to stop."""
    with contextlib.suppress(OSError):
        print(one_line(text), file=sys.stderr, flush=True)


def automatic_types(src):
    """{group of tensors: Auto}. A GGUF is kept as it is, and so is what a mobile checkpoint has in float; in float a GGUF's towers, and
    all of another folder, are as small as they are good enough for; what lies on a 4-bit lattice is q4_0."""
    kept = Auto({"F32": BF16, "BF16": BF16, "F16": Q8_0}, lattice=True)
    small, more = (Auto(dict.fromkeys(SAFETENSORS_TYPES, i), lattice=True) for i in (Q4_K, Q6_K))
    careful = Auto(dict.fromkeys(SAFETENSORS_TYPES, Q8_0))
    if src.is_gguf:
        return {"type": kept, "more": kept, "head": kept, "ple": kept, "vision": careful, "audio": careful}
    if src.is_mobile():
        return dict.fromkeys(("type", "more", "head", "ple", "vision", "audio"), kept)
    return {"type": small, "more": more, "head": more, "ple": careful, "vision": careful, "audio": careful}


def converted_lines(entries, is_gguf):
    """What has not kept its type, though it had one of a GGUF or was packed."""
    converted = collections.Counter()
    for e in entries:
        for kind in e.sources():
            if kind.lower() != TYPE_NAMES[e.type] and (kind not in SAFETENSORS_TYPES or is_gguf and e.is_auto):
                exact = all(stored.is_exact(e.type) for stored in e.stored() if stored.dtype == kind)
                converted[kind, TYPE_NAMES[e.type], ", without loss" * exact] += 1
    return [f"converted: {n} tensors from {kind} to {to}{exact}" for (kind, to, exact), n in sorted(converted.items())]


def export(where, path, types, text_only=False, mmproj=None, name=None, quiet=False, template=None,
           search=False, calibration=None):
    """Convert the checkpoint `where` to the model file `path`. types: {group of tensors: number of a type, or None: automatic}, search:
    are the scales of float weights searched, calibration: file of statistics for it."""
    path = output_path(path)
    statistics = Statistics(calibration) if calibration else None
    src = open_source(where, mmproj)
    automatic = automatic_types(src)
    types = {**types, "more": types["type"]}
    types = {group: automatic[group] if type_ is None else type_ for group, type_ in types.items()}
    if os.path.exists(path) and any(os.path.samefile(path, file.path) for file in src.files):
        raise ExportError(f"{path}: this is what the model is made from, and so not replaced")
    m = TextModel(src)
    notes = []
    try:
        blob, specials = tokenizer_blob(src.tokenizer, m.n_vocab)
    except ValueError as e:
        raise ExportError(f"{src.path}: {e}") from None
    called = name or src.name or os.path.splitext(os.path.basename(os.path.abspath(where)))[0]
    config, layers = model_config(src, m, called, specials, notes, template)
    config["source"] = source_name(where)
    out = ModelFile(search, statistics)
    text_tensors(src, m, out, types)
    tower_tensors(src, m, out, config, types, text_only)
    reasons = src.check_all_used()

    lines = [f"{src.path}: {note}" for note in notes]
    lines += [f"left out: {n} tensors ({reason})" for reason, n in reasons.items()]
    lines += converted_lines(out.entries, src.is_gguf)
    if statistics:
        missing = statistics.check(out.entries)
        lines += [f"{calibration}: nothing of {len(missing)} tensors, {missing[0]} and others: their columns weigh the same"] if missing else []
    for line in lines if not quiet else []:
        say(line)
    progress = Progress(sum(e.size for e in out.entries), quiet)
    start = time.monotonic()
    try:
        size = out.write(path, config, layers, blob, progress, src)
    finally:
        progress.close()
    if quiet:
        return
    lattice = [e for e in out.entries if e.scale == SCALE_BF16]
    if lattice:
        exact, blocks = sum(e.exact for e in lattice), sum(e.blocks for e in lattice)
        say(f"4-bit lattice: {exact} of {blocks} blocks in {len(lattice)} tensors are exact ({100 * exact / blocks:.2f} %)")
    say(f"{path}: {size / 1e6:.1f} MB, {len(out.entries)} tensors, {time.monotonic() - start:.1f} s")


def interrupted(number, _):
    """Ctrl-C, a closed terminal, kill: end with what was begun cleaned up, which a second one must not disturb."""
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("source", metavar="SOURCE", help="Hugging Face folder, .gguf file, or hub id such as google/gemma-4-E2B-it")
    p.add_argument("-o", "--output", required=True, metavar="FILE", help="the .g4 file to write")
    p.add_argument("--type", choices=("auto", *TYPE_NAMES), default="auto",
                   help="of the decoder's matrices (default: auto, which keeps a GGUF's own and makes q4_k and q6_k of float checkpoints)")
    p.add_argument("--calibration", metavar="FILE", help="what gemma4 calibrate measured, or an imatrix of llama.cpp in GGUF: rounds "
                   "with the errors in mind that matter")
    p.add_argument("--no-search", action="store_true", help="scales by the largest weight of a block alone: faster, and not as good")
    p.add_argument("--ple-type", choices=TYPE_NAMES, help="of the per-layer embeddings (default: auto or q8_0; with --type f32 or bf16 that type)")
    p.add_argument("--head-type", choices=TYPE_NAMES, help="of the embedding and the head (default: as --type)")
    p.add_argument("--vision-type", choices=TYPE_NAMES, help="of the vision tower (default: as --ple-type's)")
    p.add_argument("--audio-type", choices=TYPE_NAMES, help="of the audio tower (default: as --ple-type's)")
    p.add_argument("--text-only", action="store_true", help="leave out the vision and audio towers")
    p.add_argument("--mmproj", metavar="FILE", help="the towers of a .gguf model")
    p.add_argument("--name", help="the name that `gemma4 info` shows (default: that of the source)")
    p.add_argument("--chat-template", choices=TEMPLATE_NAMES, help="in place of the source's own, for one that has none (default: that)")
    p.add_argument("--quiet", action="store_true", help="print nothing but errors")
    a = p.parse_args()
    careful = a.type if a.type in ("auto", "f32", "bf16") else "q8_0"
    types = {"type": a.type, "head": a.head_type or a.type, "ple": a.ple_type or careful, "vision": a.vision_type or careful,
             "audio": a.audio_type or careful}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupted)
    warnings.simplefilter("ignore", RuntimeWarning)  # of numpy, on numbers that are refused in words a little later
    try:
        types = {group: None if name == "auto" else TYPE_NAMES.index(name) for group, name in types.items()}
        export(a.source, a.output, types, a.text_only, a.mmproj, a.name, a.quiet, a.chat_template,
               not a.no_search, a.calibration)
    except ExportError as e:
        say(f"export.py: {e}")
        return 1
    except OSError as e:
        say(f"export.py: {e.filename or a.output}: {e.strerror or e}")
        return 1
    except MemoryError:
        say(f"export.py: {a.source}: no memory for it")
        return 1
    except Exception as e:  # a fault of this program, but no reason for twenty lines
        at = e.__traceback__
        while at.tb_next:
            at = at.tb_next
        say(f"export.py: {a.source}: a fault in export.py, line {at.tb_lineno}, which it should have found words for: {type(e).__name__}: {e}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
