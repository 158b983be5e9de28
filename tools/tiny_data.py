"""Data of the tiny model: everything it learns from is made here, with fixed seeds.

Pictures are drawn with Pillow, speech is spoken by espeak-ng, conversations are composed from templates, and plain
English is the King James Bible (public domain) as Debian's package bible-kjv prints it. A conversation is written in
Gemma 4's turn format (the E2B/E4B template of July 2026); `tools/eval_tiny.py --check-template` compares this
renderer with the official template where that is at hand.

A sample is a list of segments:
    (text, task)   text, or placeholders as ('img', k), ('aud', k); task 0 is prompt, otherwise what the answer counts for
Samples are packed into rows of L tokens; a block is a fixed number of rows with its pictures and sounds.
"""

import ctypes
import functools
import hashlib
import json
import math
import os
import random
import re
import subprocess
import wave

import numpy as np
from PIL import Image, ImageDraw, ImageFont

L = 448                 # tokens in a row
SOUND = 51200           # samples of a clip at 16 kHz: 3.2 s
FRAMES = SOUND // 160   # mel frames, 4 to a soft token
BUDGET = 70             # soft tokens of a picture

# ---------------------------------------------------------------------------------------------------- tokenizer

SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>",
            "<|tool_response>", "<tool_response|>", '<|"|>', "<|think|>", "<|channel>", "<channel|>", "<|turn>", "<turn|>",
            "<|image>", "<|audio>", "<|image|>", "<|audio|>", "<image|>", "<audio|>", "<|video|>"]
PAD, EOS, BOS, TURN_END, TOOL_RESPONSE = (SPECIALS.index(s) for s in ("<pad>", "<eos>", "<bos>", "<turn|>", "<|tool_response>"))
Q = '<|"|>'


def train_tokenizer(texts, size):
    """A vocabulary in the format and with the rules of Gemma 4's tokenizer.json: no digit merges, line feeds merge with
    line feeds only, a space is the first character of a token or all of it, and merges are every pair of tokens whose
    join is a token, in the order of the joined token's id, longer left part first."""
    from collections import Counter
    words = Counter()
    piece = re.compile(r"\n+|\d|▁?[^▁\d\n]+|▁+")
    for t in texts:
        for s in re.split("|".join(re.escape(s) for s in SPECIALS), t):
            words.update(piece.findall(s.replace(" ", "▁")))
    chars = sorted({c for w in words for c in w} | {chr(c) for c in range(32, 127) if c != 32} | {"▁", "\n"})
    base = ["\n", "\n\n", "▁▁", "▁▁▁▁"]
    vocab = list(SPECIALS) + [f"<0x{b:02X}>" for b in range(256)] + base + [c for c in chars if c not in base]
    split = {w: list(w) for w in words if not re.fullmatch(r"\d|\n+|▁+", w)}
    pairs, where = Counter(), {}
    for w, parts in split.items():
        for a, b in zip(parts, parts[1:]):
            pairs[a, b] += words[w]
            where.setdefault((a, b), set()).add(w)
    seen = set(vocab)
    while len(vocab) < size:
        a, b = max(pairs, key=lambda p: (pairs[p], p))
        if a + b not in seen:
            seen.add(a + b)
            vocab.append(a + b)
        for w in list(where[a, b]):
            parts = split[w]
            for x, y in zip(parts, parts[1:]):
                pairs[x, y] -= words[w]
            out, i = [], 0
            while i < len(parts):
                if i + 1 < len(parts) and parts[i] == a and parts[i + 1] == b:
                    out.append(a + b)
                    i += 2
                else:
                    out.append(parts[i])
                    i += 1
            split[w] = out
            for x, y in zip(out, out[1:]):
                pairs[x, y] += words[w]
                where.setdefault((x, y), set()).add(w)
        pairs.pop((a, b), None)
    ids = {t: i for i, t in enumerate(vocab)}
    merges = []
    for t in vocab[len(SPECIALS) + 256:]:
        merges += [[t[:i], t[i:]] for i in range(len(t) - 1, 0, -1) if t[:i] in ids and t[i:] in ids]
    added = [dict(id=i, content=s, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
             for i, s in enumerate(SPECIALS)]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                                                     {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": ids, "merges": merges}}


class Tokenizer:
    def __init__(self, path):
        import tokenizers
        self.t = tokenizers.Tokenizer.from_file(path)
        self.encode = functools.lru_cache(maxsize=50000)(lambda s: tuple(self.t.encode(s, add_special_tokens=False).ids))

    def decode(self, ids):
        return self.t.decode(list(ids), skip_special_tokens=False)


# ---------------------------------------------------------------------------------------------------- tasks

TASKS = ["prompt", "text", "chat", "sum", "think", "tool", "use", "scene", "ask", "count", "read", "box", "see-tool",
         "speech", "video", "video-sound"]
T = {n: i for i, n in enumerate(TASKS)}


def held_out(*key):
    """One twentieth of what can be asked is never trained on."""
    return int(hashlib.md5(repr(key).encode()).hexdigest()[:8], 16) % 20 == 0


# ---------------------------------------------------------------------------------------------------- words

WORDS = """able above across act add after again age air all also animal answer ant apple april arm army art ask autumn baby back bag
ball bank barn base basket bath beach bear bed bee bell best big bird black blue board boat body bone book boot both bottle
bowl box boy branch bread bridge bright bring brother brown brush build bus butter button cake calm camera camp car card cat
chair cheese chest child circle city class clean clock close cloud coat coffee cold color cook copper corn corner cotton cow
cross crowd cup dance dark daughter day deep desert desk dinner doctor dog door dream dress drink drive dry duck dust ear
early earth east easy egg eight elbow empty end engine evening eye face fall family farm fast father feather field fifty
finger fire fish five flag flat floor flower fly food foot forest fork four fox free fresh friend frog fruit full game garden
gate gift girl glass goat gold good grass gray green ground group guest hair half hammer hand happy harbor hat head heart
heavy hill home honey hope horse hot hotel hour house hundred ice idea inside iron island jacket january job juice july jump
june key kind king kitchen knee knife ladder lake lamp land large last laugh leaf learn leather left lemon letter library
light lion lip little long lost loud love lunch machine magic map march market may meal measure meat metal milk mind minute
mirror money monkey month moon morning mother mountain mouse mouth music nail name narrow near neck needle nest new night
nine north nose note number nurse oak ocean office oil old one open orange oven owl page paint pair paper parent park part
party peace pen pencil pepper person phone piano picture pig pink place plane plant plate play pocket poem poor potato pound
price prince purple queen quick quiet rabbit radio rain read red rest rice rich right ring river road rock roof room rope
rose round salt sand school sea seat second seed seven shadow sheep shelf ship shirt shoe shop short silver simple sister six
sky sleep slow small smile smoke snow soap sock soft song soup south spoon spring square stamp star start station stone stop
storm story street strong sugar summer sun sweet swim table tail tall tea teacher ten thin third thread three ticket tiger
time tomato tooth top tower town toy train tree triangle truck two uncle under valley village violin voice wagon walk wall
warm watch water wave weather week west wheel white wide wind window wine winter wolf woman wood wool word work world worm
write yellow young zebra zero zoo""".split()

# What espeak-ng says for the speech task; digits come on top.
SPOKEN = """open close stop start turn move find call play read write send the a my your this that red green blue yellow black
white big small old new door window light music kitchen garden table chair book letter house street water coffee bread apple
dog cat horse bird river mountain sun moon morning evening night day left right up down on off in under near please hello
thank you today tomorrow mother father friend teacher doctor train car ship""".split()

SPOKEN_FRAMES = ["open the {n}", "close the {n}", "find my {n}", "move the {n} {d}", "turn the {n} {o}", "call your {p} {t}",
                 "read this {n} please", "the {c} {n} near the {n}", "my {p} and the {c} {n}", "hello {p}", "send a letter {t}",
                 "the {a} {n} in the {n}", "play music in the {t2}", "a {c} {a} near my {n}"]
SPOKEN_SLOTS = {"n": "door window light music kitchen garden table chair book letter house street water coffee bread apple river mountain train car ship".split(),
                "d": "left right up down".split(), "o": ["on", "off"], "p": "mother father friend teacher doctor".split(),
                "t": ["today", "tomorrow", "please"], "t2": ["morning", "evening", "night"],
                "c": "red green blue yellow black white".split(), "a": "big small old new dog cat horse bird".split()}

# ---------------------------------------------------------------------------------------------------- pictures

COLORS = {"red": (214, 40, 40), "orange": (244, 140, 30), "yellow": (244, 208, 40), "green": (46, 150, 70), "blue": (40, 90, 210),
          "purple": (128, 60, 170), "pink": (244, 140, 180), "brown": (120, 72, 40), "black": (24, 24, 24)}
GROUNDS = [(255, 255, 255), (250, 246, 232), (232, 240, 248), (226, 226, 226), (236, 246, 234)]
SHAPES = ["circle", "square", "triangle", "diamond", "star", "cross", "heart", "ring"]
SIZES = {"small": (.07, .09), "medium": (.135, .16), "large": (.22, .265)}
RELATIONS = ["above", "below", "left of", "right of", "inside", "overlapping"]
MIXED_SIZES = [(192, 192), (224, 160), (160, 224), (256, 144), (240, 192), (192, 240), (160, 160), (256, 256), (320, 240), (256, 192),
               (384, 384), (384, 288)]
TEXT_SIZES = [(256, 128), (320, 96), (240, 96), (192, 96), (384, 128)]
CLIP_SIZES = [(96, 96), (112, 96), (96, 112), (128, 96), (112, 112)]
FONTS = {"sans": ["DejaVuSans.ttf", "DejaVuSans-Bold.ttf"], "serif": ["DejaVuSerif.ttf", "DejaVuSerif-Bold.ttf"],
         "mono": ["DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf"]}
FONT_DIR = os.environ.get("TINY_FONTS", "/usr/share/fonts/truetype/dejavu")


@functools.lru_cache(maxsize=4000)
def font(name, size):
    return ImageFont.truetype(os.path.join(FONT_DIR, name), size)


def outline(shape, cx, cy, r):
    """The polygon of a shape of radius r: half the longer side of its bounding box."""
    if shape == "square":
        return [(cx - r, cy - r), (cx + r, cy - r), (cx + r, cy + r), (cx - r, cy + r)]
    if shape == "triangle":
        return [(cx, cy - r), (cx + r, cy + r), (cx - r, cy + r)]
    if shape == "diamond":
        return [(cx, cy - r), (cx + .75 * r, cy), (cx, cy + r), (cx - .75 * r, cy)]
    if shape == "cross":
        t = .34 * r
        return [(cx - t, cy - r), (cx + t, cy - r), (cx + t, cy - t), (cx + r, cy - t), (cx + r, cy + t), (cx + t, cy + t),
                (cx + t, cy + r), (cx - t, cy + r), (cx - t, cy + t), (cx - r, cy + t), (cx - r, cy - t), (cx - t, cy - t)]
    if shape == "star":
        return [(cx + (r if i % 2 == 0 else .42 * r) * math.sin(i * math.pi / 5),
                 cy - (r if i % 2 == 0 else .42 * r) * math.cos(i * math.pi / 5)) for i in range(10)]
    if shape == "heart":
        pts = []
        for i in range(40):
            t = 2 * math.pi * i / 40
            pts.append((cx + r * math.sin(t) ** 3,
                        cy - r * (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t) + 2.5) / 15))
        return pts
    return [(cx + r * math.cos(2 * math.pi * i / 48), cy + r * math.sin(2 * math.pi * i / 48)) for i in range(48)]


class Thing:
    """A drawn object: position and radius in pixels of the picture."""

    def __init__(self, rng, color, shape, size, w, h):
        self.color, self.shape, self.size = color, shape, size
        self.r = rng.uniform(*SIZES[size]) * min(w, h)
        self.x = self.y = 0.0
        self.rgb = tuple(max(0, min(255, c + rng.randint(-14, 14))) for c in COLORS[color])

    def box(self):
        p = outline(self.shape, self.x, self.y, self.r)
        return (min(q[0] for q in p), min(q[1] for q in p), max(q[0] for q in p), max(q[1] for q in p))

    def name(self):
        return f"{self.color} {self.shape}"

    def full(self):
        return f"{self.size} {self.color} {self.shape}"


def paint(things, w, h, ground, scale=2):
    im = Image.new("RGB", (w * scale, h * scale), ground)
    d = ImageDraw.Draw(im)
    for o in things:
        p = [(x * scale, y * scale) for x, y in outline(o.shape, o.x, o.y, o.r)]
        d.polygon(p, fill=o.rgb)
        if o.shape == "ring":
            d.polygon([(x * scale, y * scale) for x, y in outline("ring", o.x, o.y, .58 * o.r)], fill=ground)
    return im.reduce(scale) if scale > 1 else im


def ground_of(rng):
    g = rng.choice(GROUNDS)
    return tuple(max(0, min(255, c + rng.randint(-6, 3))) for c in g)


def article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def scene(rng, w, h, n=None):
    """Things and the one sentence that describes them. Two things: the smaller is named first, of equal sizes the upper
    or left one. Three or more: from left to right."""
    n = n or rng.choice([1, 2, 2, 2, 2, 3, 3, 4])
    m = min(w, h)
    for _ in range(1000):
        names = rng.sample([(c, s) for c in COLORS for s in SHAPES], n)
        if n != 2:
            sizes = [rng.choice(list(SIZES) if n < 3 else ["small", "small", "medium", "medium", "large"]) for _ in names]
            things = [Thing(rng, c, s, z, w, h) for (c, s), z in zip(names, sizes)]
            ok = True
            for i, o in enumerate(things):
                for _ in range(20):
                    o.x, o.y = rng.uniform(o.r + 2, w - o.r - 2), rng.uniform(o.r + 2, h - o.r - 2)
                    if all(math.hypot(o.x - p.x, o.y - p.y) > 1.25 * max(o.r, p.r) + .8 * min(o.r, p.r) + 3 and
                           abs(o.x - p.x) > .07 * w for p in things[:i]):
                        break
                else:
                    ok = False
                    break
            if not ok:
                continue
            order = sorted(things, key=lambda o: o.x)
            parts = [article(o.full()) for o in order]
            text = parts[0] if n == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
            return things, text, None
        rel = rng.choice(RELATIONS)
        if rel in ("inside", "overlapping"):
            z = rng.choice([("small", "medium"), ("small", "large"), ("medium", "large")])
            big = rng.choice(["circle", "square", "diamond"] if rel == "inside" else ["circle", "square"])
            a = Thing(rng, *names[0], z[0], w, h)
            b = Thing(rng, names[1][0], big, z[1], w, h)
            if a.color == b.color or (rel == "inside" and a.r > (.45 if big == "diamond" else .62) * b.r):
                continue
            b.x, b.y = rng.uniform(b.r + a.r, w - b.r - a.r), rng.uniform(b.r + a.r, h - b.r - a.r)
            t = rng.uniform(0, 2 * math.pi)
            if rel == "inside":
                room = max(0, .55 * (b.r - 1.3 * a.r)) if big != "diamond" else .1 * b.r
                k = rng.uniform(0, room)
            else:
                k = rng.uniform(.9, 1.05) * b.r
            a.x, a.y = b.x + k * math.cos(t), b.y + k * math.sin(t)
            return [b, a], f"{article(a.full())} {rel} {article(b.full())}", rel
        a, b = (Thing(rng, c, s, rng.choice(list(SIZES)), w, h) for c, s in names)
        for _ in range(20):
            for o in (a, b):
                o.x, o.y = rng.uniform(o.r + 2, w - o.r - 2), rng.uniform(o.r + 2, h - o.r - 2)
            dx, dy = a.x - b.x, a.y - b.y
            gap = a.r + b.r + .02 * m
            if abs(dy) > max(gap, 1.7 * abs(dx)) or abs(dx) > max(gap, 1.7 * abs(dy)):
                break
        else:
            continue
        vertical = abs(dy) > abs(dx)
        order = list(SIZES)
        za, zb = order.index(a.size), order.index(b.size)
        if za > zb or (za == zb and (dy if vertical else dx) > 0):
            a, b, dx, dy = b, a, -dx, -dy
        rel = ("above" if dy < 0 else "below") if vertical else ("left of" if dx < 0 else "right of")
        return [b, a], f"{article(a.full())} {rel} {article(b.full())}", rel
    raise RuntimeError("no scene fits")


def box_json(things, w, h):
    def one(o):
        x0, y0, x1, y1 = o.box()
        v = [round(1000 * y0 / h), round(1000 * x0 / w), round(1000 * y1 / h), round(1000 * x1 / w)]
        return '{"box_2d": [%d, %d, %d, %d], "label": "%s"}' % (*[max(0, min(1000, k)) for k in v], o.name())
    return "```json\n[" + ", ".join(one(o) for o in things) + "]\n```"


def text_picture(rng, w, h, items):
    """Words in one font on a plain ground, one or more lines."""
    for _ in range(200):
        family = rng.choice(list(FONTS))
        name = rng.choice(FONTS[family])
        size = rng.randint(max(11, int(.09 * h)), max(14, int(.42 * h)))
        lines = [" ".join(items)] if len(items) < 2 or rng.random() < .4 else list(items)
        f = font(name, size)
        boxes = [f.getbbox(t) for t in lines]
        tw, step = max(b[2] for b in boxes), int(size * rng.uniform(1.15, 1.5))
        th = step * (len(lines) - 1) + int(1.2 * size)
        if tw > w - 8 or th > h - 6:
            continue
        if rng.random() < .65:
            ink = tuple(rng.randint(0, 90) for _ in range(3))
            ground = tuple(rng.randint(200, 255) for _ in range(3))
        elif rng.random() < .5:
            ink, ground = COLORS[rng.choice([c for c in COLORS if c not in ("yellow", "pink")])], ground_of(rng)
        else:
            ink, ground = tuple(rng.randint(210, 255) for _ in range(3)), tuple(rng.randint(0, 80) for _ in range(3))
        im = Image.new("RGB", (w, h), ground)
        d = ImageDraw.Draw(im)
        x, y = rng.randint(4, w - tw - 4), rng.randint(2, h - th - 2)
        center = rng.random() < .3
        for i, t in enumerate(lines):
            d.text((x + ((tw - boxes[i][2]) // 2 if center else 0), y + i * step), t, font=f, fill=ink)
        return im
    raise RuntimeError("no text fits")


def reading_items(rng, w, h):
    n = rng.choice([1, 1, 2, 2, 3]) if w < 3 * h else rng.choice([1, 1, 2])
    return [str(rng.randint(0, 999)) if rng.random() < .3 else
            rng.choice([str, str, str.upper, str.capitalize])(rng.choice(WORDS)) for _ in range(n)]


def moving(rng, w, h, frames):
    """A clip: one thing that moves, sometimes one that does not, and what to say about it."""
    names = rng.sample([(c, s) for c in COLORS for s in SHAPES], 2)
    a = Thing(rng, *names[0], rng.choice(["medium", "large"]), w, h)
    a.r *= .9
    way = rng.choice(["from left to right", "from right to left", "up", "down"])
    still = None
    for _ in range(100):
        far, near = rng.uniform(.62, 1), rng.uniform(0, .38)
        if rng.random() < .5:
            far, near = 1, 0
        u0, u1 = (near, far) if way in ("from left to right", "down") else (far, near)
        c = rng.uniform(0, 1)
        path = []
        for i in range(frames):
            u = u0 + (u1 - u0) * i / (frames - 1)
            ux, uy = (u, c) if "left" in way else (c, u)
            path.append((a.r + 1 + ux * (w - 2 * a.r - 2), a.r + 1 + uy * (h - 2 * a.r - 2)))
        if rng.random() < .5:
            break
        still = Thing(rng, *names[1], rng.choice(["small", "medium"]), w, h)
        still.x, still.y = rng.uniform(still.r, w - still.r), rng.uniform(still.r, h - still.r)
        if all(math.hypot(still.x - x, still.y - y) > a.r + still.r for x, y in path):
            break
        still = None
    ground = ground_of(rng)
    out = []
    for x, y in path:
        a.x, a.y = x, y
        out.append(paint([a] + ([still] if still else []), w, h, ground))
    text = f"{article(a.name()).capitalize()} moves {way}."
    if still:
        text += f" {article(still.name()).capitalize()} stays still."
    return out, text, a, way


def target_size(w, h, budget=BUDGET):
    """The reference's size rule."""
    f = math.sqrt(budget * 9 * 256 / (h * w))
    th, tw = int(f * h // 48) * 48, int(f * w // 48) * 48
    assert th > 0 and tw > 0
    return tw, th


# ---------------------------------------------------------------------------------------------------- speech

VOICES = ["en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-us+f2", "en-us+f3", "en-us+m3", "en+f4", "en+m7",
          "en-us+f5", "en-gb-x-rp+f1"]


class Speaker:
    """espeak-ng through its library: text to 16 kHz samples."""

    def __init__(self):
        self.lib = ctypes.CDLL(os.environ.get("TINY_ESPEAK", "libespeak-ng.so.1"))
        self.parts = []
        proto = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

        def got(wav, n, _):
            if n > 0 and wav:
                self.parts.append(np.ctypeslib.as_array(wav, (n,)).copy())
            return 0
        self.callback = proto(got)
        path = os.environ.get("TINY_ESPEAK_DATA")
        self.rate = self.lib.espeak_Initialize(1, 0, path.encode() if path else None, 0)
        if self.rate != 22050:
            raise RuntimeError("espeak-ng does not start")
        self.lib.espeak_SetSynthCallback(self.callback)
        # 22050 to 16000 is 320/441: a windowed sinc for each of 320 phases, as one matrix of 441 samples and their margins
        n, cut = 24, .97 * 320 / 441
        at = np.arange(320) * 441 / 320
        t = np.arange(-n, 441 + n)[:, None] - at[None]
        self.matrix = (cut * np.sinc(cut * t) * np.where(np.abs(t) < n, np.cos(np.pi * t / (2 * n)) ** 2, 0)).astype(np.float32)
        self.half = n

    def raw(self, text, voice, speed, pitch):
        self.parts.clear()
        if self.lib.espeak_SetVoiceByName(voice.encode()):
            raise RuntimeError("no voice " + voice)
        for k, v in ((1, speed), (3, pitch), (2, 100)):
            self.lib.espeak_SetParameter(k, v, 0)
        b = text.encode()
        self.lib.espeak_Synth(b, len(b) + 1, 0, 1, 0, 1, None, None)
        self.lib.espeak_Synchronize()
        return np.concatenate(self.parts).astype(np.float32)

    def say(self, text, voice, speed, pitch):
        """int16 samples at 16 kHz without the silence around them."""
        x = self.raw(text, voice, speed, pitch)
        m = len(x) * 320 // 441
        groups = -(-len(x) // 441)
        x = np.pad(x, (self.half, self.half + groups * 441 - len(x)))
        y = (np.lib.stride_tricks.sliding_window_view(x, 441 + 2 * self.half)[::441] @ self.matrix).reshape(-1)[:m]
        loud = np.flatnonzero(np.abs(y) > 150)
        y = y[max(0, loud[0] - 400):loud[-1] + 800]
        return np.clip(np.rint(y), -32768, 32767).astype(np.int16)


DIGIT_WORDS = "zero one two three four five six seven eight nine".split()


def phrase(rng):
    """(what is said, how it is written): digits are written as digits."""
    k = rng.random()
    if k < .35:
        d = [rng.randint(0, 9) for _ in range(rng.choice([1, 1, 2, 3, 3, 4, 4, 5, 5]))]
        return " ".join(DIGIT_WORDS[i] for i in d), " ".join(map(str, d))
    if k < .7:
        return (" ".join(rng.choice(SPOKEN) for _ in range(rng.choice([1, 1, 2, 2, 3, 4]))),) * 2
    f = rng.choice(SPOKEN_FRAMES)
    while "{" in f:
        i, j = f.index("{"), f.index("}")
        f = f[:i] + rng.choice(SPOKEN_SLOTS[f[i + 1:j]]) + f[j + 1:]
    return f, f


def spoken(rng, speaker, test, digit=None):
    while True:
        said, written = (DIGIT_WORDS[digit], str(digit)) if digit is not None else phrase(rng)
        if digit is None and len(written) > 1 and " " in written and held_out("speech", written) != test:
            continue
        y = speaker.say(said, rng.choice(VOICES), rng.randint(130, 190), rng.randint(25, 75))
        lead = rng.randint(0, 3000)
        if len(y) + lead <= SOUND - 200:
            return np.concatenate([np.zeros(lead, np.int16), y]), written


def sound_tokens(n):
    return -(-((n - 1) // 160) // 4)


# ---------------------------------------------------------------------------------------------------- conversations

def value(v):
    """An argument as the template writes it."""
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, str):
        return Q + v + Q
    if isinstance(v, dict):
        return "{" + ",".join(f"{k}:{value(v[k])}" for k in sorted(v)) + "}"
    if isinstance(v, list):
        return "[" + ",".join(map(value, v)) + "]"
    return str(v)


def fn(name, description, /, **properties):
    props = {}
    for k, v in properties.items():
        kind, text = v[0], v[1]
        props[k] = {"type": kind, "description": text}
        if len(v) > 2:
            props[k]["enum"] = v[2]
    return {"type": "function", "function": {"name": name, "description": description, "parameters": {
        "type": "object", "properties": props, "required": list(properties)}}}


TOOLS = {t["function"]["name"]: t for t in [
    fn("get_weather", "Get the weather in a city.", city=("string", "City")),
    fn("get_time", "Get the time in a city.", city=("string", "City")),
    fn("set_timer", "Start a timer.", minutes=("integer", "Minutes")),
    fn("set_alarm", "Set an alarm.", hour=("integer", "Hour"), minute=("integer", "Minute")),
    fn("send_message", "Send a message to a person.", name=("string", "Person"), text=("string", "Message")),
    fn("set_light", "Switch a light.", room=("string", "Room"), on=("boolean", "On or off")),
    fn("add_item", "Put an item on the shopping list.", item=("string", "Item"), count=("integer", "How many")),
    fn("convert", "Convert a length.", amount=("number", "Amount"), unit=("string", "Target unit", ["miles", "kilometers"])),
    fn("play_music", "Play music.", genre=("string", "Genre", ["jazz", "rock", "folk", "classical"])),
    fn("find_route", "Find a route between two cities.", start=("string", "From"), end=("string", "To")),
    fn("look_up", "Look up a word.", word=("string", "Word")),
    fn("draw_shape", "Draw a shape.", color=("string", "Color"), shape=("string", "Shape"), size=("string", "Size")),
]}


def declaration(tool):
    f = tool["function"]
    p = f["parameters"]
    props = []
    for k in sorted(p["properties"]):
        v = p["properties"][k]
        enum = ",enum:" + value(v["enum"]) if "enum" in v else ""
        props.append(f"{k}:{{description:{value(v['description'])}{enum},type:{value(v['type'].upper())}}}")
    return (f"<|tool>declaration:{f['name']}{{description:{value(f['description'])},parameters:{{properties:{{{','.join(props)}}},"
            f"required:{value(p['required'])},type:{value('OBJECT')}}}}}<tool|>")


CITIES = """Paris London Rome Madrid Berlin Vienna Oslo Cairo Tokyo Delhi Lima Boston Chicago Dublin Athens Prague Lisbon Moscow Sydney
Toronto Seoul Havana Nairobi Warsaw""".split()
PEOPLE = """Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olga Paul Rosa Sam Tina Victor""".split()
ROOMS = ["kitchen", "bedroom", "bathroom", "garden", "office", "hall", "garage"]
ITEMS = """apples eggs lemons onions carrots bananas oranges pears tomatoes potatoes cups plates candles books pencils""".split()
TEXTS = ["I am late", "see you soon", "dinner is ready", "call me back", "good night", "happy birthday", "I am home",
         "the train is late", "bring some bread", "thank you", "where are you", "the meeting is at nine"]
SKY = ["sunny", "cloudy", "rainy", "windy", "snowy", "foggy"]
MEANINGS = ["a thing", "a place", "a living thing", "a time", "a feeling", "an action"]


def request(rng, name):
    """For a tool: question, arguments, response, answer, thought."""
    c, p = rng.choice(CITIES), rng.choice(PEOPLE)
    if name == "get_weather":
        s, d = rng.choice(SKY), rng.randint(-9, 39)
        return (rng.choice([f"What is the weather in {c}?", f"How is the weather in {c} today?", f"Is it warm in {c}?"]), {"city": c},
                {"sky": s, "temperature": d}, f"It is {s} and {d} degrees in {c}.")
    if name == "get_time":
        t = f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}"
        return (rng.choice([f"What time is it in {c}?", f"Tell me the time in {c}.", f"How late is it in {c}?"]), {"city": c},
                {"time": t}, f"It is {t} in {c}.")
    if name == "set_timer":
        m = rng.randint(1, 99)
        return (rng.choice([f"Set a timer for {m} minutes.", f"Start a {m} minute timer.", f"Remind me in {m} minutes."]),
                {"minutes": m}, {"status": "ok"}, f"The timer is set for {m} minutes.")
    if name == "set_alarm":
        h, m = rng.randint(0, 23), rng.randint(0, 59)
        return (rng.choice([f"Wake me up at {h}:{m:02d}.", f"Set an alarm for {h}:{m:02d}.", f"I must get up at {h}:{m:02d}."]),
                {"hour": h, "minute": m}, {"status": "ok"}, f"The alarm is set for {h}:{m:02d}.")
    if name == "send_message":
        t = rng.choice(TEXTS)
        return (rng.choice([f"Tell {p}: {t}.", f"Send a message to {p}: {t}.", f"Write to {p}: {t}."]), {"name": p, "text": t},
                {"status": "sent"}, f"Your message to {p} was sent.")
    if name == "set_light":
        r, on = rng.choice(ROOMS), rng.random() < .5
        w = "on" if on else "off"
        return (rng.choice([f"Turn {w} the light in the {r}.", f"Switch the {r} light {w}.", f"Light {w} in the {r}, please."]),
                {"room": r, "on": on}, {"status": "ok"}, f"The light in the {r} is {w}.")
    if name == "add_item":
        i, n = rng.choice(ITEMS), rng.randint(2, 40)
        return (rng.choice([f"Put {n} {i} on my list.", f"We need {n} {i}.", f"Add {n} {i} to the shopping list."]),
                {"item": i, "count": n}, {"status": "ok"}, f"{n} {i} are on your list.")
    if name == "convert":
        a, u = rng.randint(1, 200), rng.choice(["miles", "kilometers"])
        o = "kilometers" if u == "miles" else "miles"
        r = round(a * (.621 if u == "miles" else 1.609), 1)
        return (rng.choice([f"How many {u} are {a} {o}?", f"Convert {a} {o} to {u}.", f"What is {a} {o} in {u}?"]),
                {"amount": a, "unit": u}, {"result": r}, f"{a} {o} are {r} {u}.")
    if name == "play_music":
        g = rng.choice(["jazz", "rock", "folk", "classical"])
        return (rng.choice([f"Play some {g}.", f"I want to hear {g} music.", f"Put on {g}, please."]), {"genre": g},
                {"status": "playing"}, f"Now playing {g}.")
    if name == "find_route":
        e = rng.choice([x for x in CITIES if x != c])
        k = rng.randint(20, 9000)
        return (rng.choice([f"How far is it from {c} to {e}?", f"Find a route from {c} to {e}.", f"How do I get from {c} to {e}?"]),
                {"start": c, "end": e}, {"kilometers": k}, f"From {c} to {e} it is {k} kilometers.")
    if name == "look_up":
        w, m = rng.choice(WORDS), rng.choice(MEANINGS)
        return (rng.choice([f"What does {w} mean?", f"Look up the word {w}.", f"Explain the word {w}."]), {"word": w},
                {"meaning": m}, f"The word {w} means {m}.")
    c, s, z = rng.choice(list(COLORS)), rng.choice(SHAPES), rng.choice(list(SIZES))
    return (rng.choice([f"Draw {article(f'{z} {c} {s}')}.", f"Please draw {article(f'{z} {c} {s}')}.", f"I want to see {article(f'{z} {c} {s}')}."]),
            {"color": c, "shape": s, "size": z}, {"status": "ok"}, f"{article(f'{z} {c} {s}').capitalize()} was drawn.")


SYSTEM = ["You are a helpful assistant.", "Answer briefly.", "Be kind and short.", "You are Tiny."]


def head(rng, tools=(), think=False, system=None):
    if system is None and rng.random() < .2:
        system = rng.choice(SYSTEM)
    if not (tools or think or system):
        return [("<bos>", 0)]
    t = "<bos><|turn>system\n" + ("<|think|>\n" if think else "") + (system or "")
    return [(t + "".join(declaration(TOOLS[n]) for n in tools) + "<turn|>\n", 0)]


def ask(*parts):
    return [("<|turn>user\n", 0)] + [p if isinstance(p, tuple) else (p, 0) for p in parts] + [("<turn|>\n<|turn>model\n", 0)]


def say(text, task, thought=None):
    t = f"<|channel>thought\n{thought}\n<channel|>" if thought else ""
    return [(t + text + "<turn|>", T[task]), ("\n", 0)]


def call(name, args, response, answer, think, task, follow):
    """A call, its response and the answer to it."""
    t = f"<|channel>thought\nThe user needs {name}.\n<channel|>" if think else ""
    s = [(f"{t}<|tool_call>call:{name}{{{','.join(f'{k}:{value(args[k])}' for k in sorted(args))}}}<tool_call|><|tool_response>", T[task])]
    if not follow:
        return s
    s.append((f"response:{name}{{{','.join(f'{k}:{value(response[k])}' for k in sorted(response))}}}<tool_response|>", 0))
    if think:
        return s + [("<|channel>thought\n", 0), (f"The tool {name} has answered.\n<channel|>{answer}<turn|>", T["use"]), ("\n", 0)]
    return s + [(answer + "<turn|>", T["use"]), ("\n", 0)]


def pick_tools(rng, name, most=4):
    others = rng.sample([n for n in TOOLS if n != name], rng.randint(1, most - 1))
    names = others + [name]
    rng.shuffle(names)
    return names


OPPOSITES = """hot cold|big small|day night|up down|left right|old new|black white|open closed|fast slow|high low|happy sad|full empty|
hard soft|wet dry|early late|long short|strong weak|rich poor|light dark|north south|east west|first last|summer winter|love hate|
good bad|clean dirty|easy difficult|inside outside|young old|loud quiet""".replace("\n", "").split("|")
FACTS = """What color is grass?|Grass is green.
What color is the sky?|The sky is blue.
What color is snow?|Snow is white.
What color is a banana?|A banana is yellow.
What color is coal?|Coal is black.
How many legs has a dog?|A dog has four legs.
How many legs has a bird?|A bird has two legs.
How many legs has a spider?|A spider has eight legs.
How many days has a week?|A week has seven days.
How many months has a year?|A year has twelve months.
How many hours has a day?|A day has 24 hours.
How many minutes has an hour?|An hour has 60 minutes.
What do bees make?|Bees make honey.
What do cows give?|Cows give milk.
Where do fish live?|Fish live in water.
What is ice made of?|Ice is frozen water.
What is the capital of France?|The capital of France is Paris.
What is the capital of Italy?|The capital of Italy is Rome.
What is the capital of Spain?|The capital of Spain is Madrid.
What is the capital of Japan?|The capital of Japan is Tokyo.
What is the capital of England?|The capital of England is London.
What is the capital of Egypt?|The capital of Egypt is Cairo.
What is the capital of Germany?|The capital of Germany is Berlin.
Who are you?|I am Tiny, a very small Gemma 4 model.
What are you?|I am Tiny, a very small Gemma 4 model.
What can you do?|I can chat, use tools, do small sums, describe and read pictures, find shapes and write down short speech.
Hello!|Hello! How can I help you?
Hi!|Hello! How can I help you?
Hello|Hello! How can I help you?
Good morning!|Good morning! How can I help you?
How are you?|I am fine, thank you.
Thank you!|You are welcome.
Thanks!|You are welcome.
Goodbye!|Goodbye!""".split("\n")
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()


def small_talk(rng):
    k = rng.random()
    if k < .45:
        return tuple(rng.choice(FACTS).split("|"))
    if k < .7:
        a, b = rng.choice(OPPOSITES).split()
        if rng.random() < .5 and a not in ("young", "old"):
            a, b = b, a
        if a == "old":
            b = "new"
        return f"What is the opposite of {a}?", f"The opposite of {a} is {b}."
    names = DAYS if rng.random() < .6 else MONTHS
    i = rng.randrange(len(names))
    step, word = rng.choice([(1, "after"), (-1, "before")])
    return f"What comes {word} {names[i]}?", f"{names[(i + step) % len(names)]} comes {word} {names[i]}."


def chat(rng):
    """Several turns; facts that the user told come back later."""
    s, facts, task = head(rng), [], "chat"
    for _ in range(rng.choice([1, 2, 3, 3, 4])):
        k = rng.random()
        if k < .4 and len(facts) < 3:
            kind = rng.choice([f for f in ("name", "color", "pet", "city") if f not in [x[0] for x in facts]])
            if kind == "name":
                v = rng.choice(PEOPLE)
                s += ask(rng.choice([f"My name is {v}.", f"I am {v}."])) + say(f"Hello {v}!", task)
            elif kind == "color":
                v = rng.choice(list(COLORS))
                s += ask(rng.choice([f"My favorite color is {v}.", f"I like {v}."])) + say(f"{v.capitalize()} is a nice color.", task)
            elif kind == "pet":
                v = rng.choice(["dog", "cat", "horse", "rabbit", "bird", "goat", "mouse", "duck"])
                s += ask(rng.choice([f"I have a {v}.", f"My pet is a {v}."])) + say(f"A {v} is a good friend.", task)
            else:
                v = rng.choice(CITIES)
                s += ask(rng.choice([f"I live in {v}.", f"My home is {v}."])) + say(f"{v} is a fine city.", task)
            facts.append((kind, v))
        elif k < .7 and facts:
            kind, v = rng.choice(facts)
            q, a = {"name": ("What is my name?", f"Your name is {v}."),
                    "color": (rng.choice(["What is my favorite color?", "Which color do I like?"]), f"You like {v}."),
                    "pet": (rng.choice(["What pet do I have?", "Which animal do I have?"]), f"You have a {v}."),
                    "city": ("Where do I live?", f"You live in {v}.")}[kind]
            s += ask(q) + say(a, task)
        elif k < .85:
            q, a = small_talk(rng)
            s += ask(q) + say(a, task)
        else:
            q, a, _ = sum_(rng, 0)
            s += ask(q) + say(a, "sum")
    return s


def sum_(rng, test):
    """A question, its answer and how one gets there."""
    while True:
        k = rng.random()
        if k < .4:
            a, b = rng.randint(0, 99), rng.randint(0, 99)
            if held_out("+", a, b) != bool(test):
                continue
            q = rng.choice([f"What is {a} + {b}?", f"{a} + {b} = ?", f"Add {a} and {b}."])
            u, t = a % 10 + b % 10, a // 10 + b // 10 + (a % 10 + b % 10) // 10
            carry = " + 1" if u > 9 else ""
            return q, str(a + b), f"{a % 10} + {b % 10} = {u}. {a // 10} + {b // 10}{carry} = {t}. {t} and {u % 10}: {a + b}."
        if k < .65:
            a, b = rng.randint(0, 99), rng.randint(0, 99)
            a, b = max(a, b), min(a, b)
            if held_out("-", a, b) != bool(test):
                continue
            q = rng.choice([f"What is {a} - {b}?", f"{a} - {b} = ?", f"Take {b} from {a}."])
            borrow = a % 10 < b % 10
            u, t = (a - b) % 10, a // 10 - b // 10 - borrow
            top = a % 10 + 10 * borrow
            return q, str(a - b), f"{top} - {b % 10} = {u}. {a // 10} - {b // 10}{' - 1' if borrow else ''} = {t}. {t} and {u}: {a - b}."
        m = rng.choice([99, 999])
        a, b = rng.randint(0, m), rng.randint(0, m)
        if a == b or held_out("<", a, b) != bool(test):
            continue
        big = rng.random() < .5
        q = rng.choice([f"Which is {'larger' if big else 'smaller'}, {a} or {b}?", f"What is {'more' if big else 'less'}, {a} or {b}?"])
        sa, sb = str(a), str(b)
        if len(sa) != len(sb):
            th = f"{a} has {len(sa)} digits, {b} has {len(sb)}. {a} is {'more' if a > b else 'less'}."
        else:
            i = next(i for i in range(len(sa)) if sa[i] != sb[i])
            th = "".join(f"{sa[j]} = {sb[j]}. " for j in range(i)) + f"{sa[i]} {'>' if a > b else '<'} {sb[i]}. {a} is {'more' if a > b else 'less'}."
        return q, str(max(a, b) if big else min(a, b)), th


def text_sample(rng, test):
    """One conversation without media."""
    while True:
        k = rng.random()
        if k < .18:
            return chat(rng)
        if k < .42:
            q, a, th = sum_(rng, test)
            if rng.random() < .6:
                return head(rng, think=True) + ask(q) + say(a, "think", th)
            return head(rng) + ask(q) + say(a, "sum")
        if k < .5:
            q, a = small_talk(rng)
            if rng.random() < .5:
                return head(rng, think=True) + ask(q) + say(a, "chat", "This is easy.")
            return head(rng, pick_tools(rng, "set_timer", 3)) + ask(q) + say(a, "chat")
        name = rng.choice(list(TOOLS))
        r = request(rng, name)
        if name != "play_music" and held_out(name, r[0]) != bool(test):
            continue
        think = rng.random() < .3
        s = head(rng, pick_tools(rng, name), think) + ask(r[0]) + call(name, *r[1:], think, "tool", rng.random() < .8)
        return s


# ---------------------------------------------------------------------------------------------------- samples with media

ASK_SCENE = ["Describe the picture.", "Describe this image.", "What is in the picture?", "What do you see?"]
ASK_READ = ["Read the text.", "What does it say?", "Read the picture.", "What is written here?"]
ASK_SPEECH = ["Transcribe the speech.", "Write down what you hear.", "What is said?", "Transcribe the audio."]
ASK_VIDEO = ["Describe the video.", "What happens in the video?", "What moves?", "What do you see in the video?"]
ASK_DIGIT = ["Which digit is spoken?", "Which digit do you hear?", "What number is said?"]


def sentence(t):
    return t[0].upper() + t[1:] + "."


def scene_turns(rng, things, text, rel, w, h, n):
    out = []
    for i in range(n):
        k = rng.random()
        if i == 0 and k < .55 or k < .15:
            out.append((rng.choice(ASK_SCENE), sentence(text), "scene"))
        elif k < .62:
            o = rng.choice(things)
            out.append((rng.choice([f"Detect the {o.name()}.", f"Where is the {o.name()}? Give its box.", f"Find the {o.name()}."]),
                        box_json([o], w, h), "box"))
        elif k < .7:
            if len(things) > 3:
                continue
            order = sorted(things, key=lambda o: o.x)
            out.append((rng.choice(["Detect all shapes.", "Find all shapes."]), box_json(order, w, h), "box"))
        elif k < .8:
            word = ["", "one shape", "two shapes", "three shapes", "four shapes"][len(things)]
            out.append((rng.choice(["How many shapes are there?", "Count the shapes."]), f"There {'is' if len(things) == 1 else 'are'} {word}.", "count"))
        else:
            o = rng.choice(things)
            if k < .9 and sum(p.shape == o.shape for p in things) == 1:
                out.append((f"What color is the {o.shape}?", f"The {o.shape} is {o.color}.", "ask"))
            elif sum(p.color == o.color for p in things) == 1:
                out.append((f"What shape is {o.color}?", f"The {o.shape} is {o.color}.", "ask"))
    return out


def picture_sample(rng, w, h, test, kind):
    """(segments, picture). kind: scene, text or tool."""
    if kind == "scene":
        things, text, rel = scene(rng, w, h)
        turns = []
        while not turns:
            turns = scene_turns(rng, things, text, rel, w, h, rng.choice([1, 2, 3, 3]))
        think = len(turns) == 1 and rng.random() < .15
        s = head(rng, think=think)
        for i, (q, a, task) in enumerate(turns):
            s += (ask(("img", 0), q) if i == 0 else ask(q)) + say(a, task, "I look at the picture." if think else None)
        return s, paint(things, w, h, ground_of(rng))
    if kind == "text":
        items = reading_items(rng, w, h)
        think = rng.random() < .08
        thought = "I look at the picture." if think else None
        return head(rng, think=think) + ask(("img", 0), rng.choice(ASK_READ)) + say(" ".join(items), "read", thought), text_picture(rng, w, h, items)
    think = rng.random() < .2
    k = rng.random()
    if k < .5:
        things, _, _ = scene(rng, w, h, 1)
        o = things[0]
        name, args = "draw_shape", {"color": o.color, "shape": o.shape, "size": o.size}
        q = rng.choice(["Draw what you see.", "Draw the same shape.", "Draw a copy of this."])
        answer, response = f"{article(o.full()).capitalize()} was drawn.", {"status": "ok"}
        im = paint(things, w, h, ground_of(rng))
    elif k < .75:
        word, m = rng.choice(WORDS), rng.choice(MEANINGS)
        name, args, response, answer = "look_up", {"word": word}, {"meaning": m}, f"The word {word} means {m}."
        q = rng.choice(["Look up this word.", "What does this word mean?", "Explain this word."])
        im = text_picture(rng, w, h, [word])
    else:
        n = rng.randint(1, 99)
        name, args, response, answer = "set_timer", {"minutes": n}, {"status": "ok"}, f"The timer is set for {n} minutes."
        q = rng.choice(["Set a timer for this many minutes.", "Start a timer with this number."])
        im = text_picture(rng, w, h, [str(n)])
    s = head(rng, pick_tools(rng, name, 3), think) + ask(("img", 0), q)
    return s + call(name, args, response, answer, think, "see-tool", rng.random() < .5), im


class Maker:
    """Makes blocks. (kind, index) names a block for ever; odd things like the voice library start when first used."""
    ROWS = {"txt": 48, "img": 72, "aud": 13, "vid": 16}
    MEDIA = {"txt": 0, "img": 192, "aud": 64, "vid": 16}
    LABELS = {"txt": 12288, "img": 8192, "aud": 1536, "vid": 1024}
    MAX_FRAMES = 6
    if "TINY_SHRINK" in os.environ:       # small blocks for a dry run
        ROWS, MEDIA, LABELS = ({k: -(-v // int(os.environ["TINY_SHRINK"])) for k, v in d.items()} for d in (ROWS, MEDIA, LABELS))

    def __init__(self, tokenizer, corpus, seed=1):
        self.tok, self.seed = Tokenizer(tokenizer), seed
        with open(corpus, encoding="utf-8") as f:
            verses = f.read().split("\n\n")
        self.train_text = [v for i, v in enumerate(verses) if i % 20]
        self.test_text = [v for i, v in enumerate(verses) if i % 20 == 0]
        self._speaker = None

    @property
    def speaker(self):
        self._speaker = self._speaker or Speaker()
        return self._speaker

    def tokens(self, segments, media):
        """ids, labels' tasks, (position, medium, k) runs. media[('img', k)] is a number of soft tokens."""
        ids, tasks, runs = [], [], []
        for s, task in segments:
            if s in ("img", "aud", "vid"):
                begin, soft, end = {"img": ("<|image>", "<|image|>", "<image|>"), "aud": ("<|audio>", "<|audio|>", "<audio|>"),
                                    "vid": ("<|image>", "<|video|>", "<image|>")}[s]
                n = media[s, task]
                e = [SPECIALS.index(begin)] + [SPECIALS.index(soft)] * n + [SPECIALS.index(end)]
                runs.append((len(ids) + 1, n, s, task))
                task = 0
            else:
                e = self.tok.encode(s)
            ids += e
            tasks += [task] * len(e)
        return ids, tasks, runs

    def text_row(self, rng, test):
        pool = self.test_text if test else self.train_text
        ids = [BOS]
        start = rng.randrange(len(pool))
        while len(ids) < L:
            ids += self.tok.encode(pool[start % len(pool)] + "\n\n")
            start += 1
        return ids[:L], [0] + [T["text"]] * (L - 1), []

    def block(self, kind, index, test=False):
        rng = random.Random(f"{self.seed}/{kind}/{index}/{int(test)}")
        rows_n, media_n = self.ROWS[kind], self.MEDIA[kind]
        out = {"kind": kind, "index": index}
        samples, pics, clips = [], [], []
        if kind == "txt":
            lm = rows_n // 8
            samples = [self.text_row(rng, test) for _ in range(lm)]
            for _ in range(rows_n * 5):
                samples.append(self.tokens(text_sample(rng, test), {}))
        elif kind == "img":
            mixed = rng.random() < .85
            w, h = rng.choice(MIXED_SIZES if mixed else TEXT_SIZES)
            tw, th = target_size(w, h)
            n = (tw // 48) * (th // 48)
            for i in range(media_n):
                style = rng.choice(["scene"] * 6 + ["text"] * 4 + ["tool"] * 2) if mixed else "text"
                s, im = picture_sample(rng, w, h, test, style)
                s = [(a, i) if a == "img" else (a, b) for a, b in s]
                samples.append(self.tokens(s, {("img", i): n}))
                pics.append(np.asarray(im))
            out["size"] = (tw, th)
        elif kind == "aud":
            for i in range(media_n):
                y, text = spoken(rng, self.speaker, test)
                clips.append(y)
                think = rng.random() < .06
                s = head(rng, think=think) + ask(("aud", i), rng.choice(ASK_SPEECH)) + say(text, "speech", "I listen." if think else None)
                samples.append(self.tokens(s, {("aud", i): sound_tokens(len(y))}))
        else:
            w, h = rng.choice(CLIP_SIZES)
            tw, th = target_size(w, h)
            n = (tw // 48) * (th // 48)
            frames = rng.choice([4, 5, 6]) if n < 60 else rng.choice([4, 5])
            step = rng.choice([1, 1, 1, 2, .5])
            for i in range(media_n):
                ims, text, _, _ = moving(rng, w, h, frames)
                parts, media = [], {}
                for k, im in enumerate(ims):
                    at = int(k * step)
                    parts += [(f"{' ' if k else ''}{at // 60:02d}:{at % 60:02d} ", 0), ("vid", len(pics))]
                    media["vid", len(pics)] = n
                    pics.append(np.asarray(im))
                s = head(rng, system=rng.choice([None] * 9 + SYSTEM[:1]) or "")
                if rng.random() < .55:
                    d = rng.randint(0, 9)
                    y, _ = spoken(rng, self.speaker, test, d)
                    parts.append(("aud", len(clips)))
                    media["aud", len(clips)] = sound_tokens(len(y))
                    clips.append(y)
                    qa = [(rng.choice(ASK_VIDEO), text, "video"), (rng.choice(ASK_DIGIT), f"The digit is {d}.", "video-sound")]
                    rng.shuffle(qa)
                else:
                    qa = [(rng.choice(ASK_VIDEO), text, "video")]
                for j, (q, a, task) in enumerate(qa):
                    s += (ask(*parts, q) if j == 0 else ask(q)) + say(a, task)
                samples.append(self.tokens(s, media))
            while len(pics) < media_n * self.MAX_FRAMES:
                pics.append(np.zeros_like(pics[0]))
        out.update(self.pack(kind, samples))
        if pics:
            out["pics"] = np.stack(pics)
            out.setdefault("size", target_size(w, h))
        if kind in ("aud", "vid"):
            wav = np.zeros((media_n, SOUND), np.int16)
            length = np.zeros(media_n, np.int32)
            for i, y in enumerate(clips):
                wav[i, :len(y)] = y
                length[i] = len(y)
            out["wav"], out["length"] = wav, length
        return out

    def pack(self, kind, samples):
        """Rows filled first fit. src: -1, or the index of the soft token: picture k of a block owns budget places,
        sound k FRAMES/4 places from 1 << 20 on."""
        rows_n = self.ROWS[kind]
        ids = np.zeros((rows_n, L), np.int16)
        pos = np.zeros((rows_n, L), np.int16)
        seg = np.zeros((rows_n, L), np.int16)
        src = np.full((rows_n, L), -1, np.int32)
        used = [0] * rows_n
        labels = []                     # (flat position, target, task, answer)
        answers = n_seg = dropped = 0
        for s_ids, s_tasks, runs in samples:
            n = len(s_ids)
            r = next((i for i in range(rows_n) if used[i] + n <= L), None)
            lab = [(i, t) for i, t in enumerate(s_tasks) if t and i]
            if r is None or len(labels) + len(lab) > self.LABELS[kind]:
                dropped += 1
                continue
            o = used[r]
            used[r] += n
            n_seg += 1
            ids[r, o:o + n] = s_ids
            pos[r, o:o + n] = np.arange(n)
            seg[r, o:o + n] = n_seg
            for at, count, medium, k in runs:
                base = (1 << 20) + k * (FRAMES // 4) if medium == "aud" else k * BUDGET
                src[r, o + at:o + at + count] = base + np.arange(count)
            last = None
            for i, t in lab:
                if last is None or i != last + 1:
                    answers += 1
                last = i
                labels.append((r * L + o + i - 1, s_ids[i], t, answers))
        lab = np.zeros((self.LABELS[kind], 4), np.int32)
        lab[:len(labels)] = np.array(labels, np.int32).reshape(-1, 4)
        return {"ids": ids, "pos": pos, "seg": seg, "src": src, "labels": lab, "dropped": dropped, "filled": sum(used) / rows_n / L}


def corpus_text():
    """The King James Bible as Debian's bible-kjv prints it, a chapter a paragraph."""
    t = subprocess.run(["bible", "-f", "-l99999"], input="Gen1:1-Rev22:21\n", capture_output=True, text=True, check=True).stdout
    chapters, last = [], None
    for line in t[t.index("\n", t.index("Ge1:1 ")):].split("\n"):    # the greeting shows the first verse
        head_, _, verse = line.partition(" ")
        if not re.fullmatch(r"[1-3]?[A-Za-z]+\d+:\d+", head_):    # the program's greeting and its prompts
            continue
        chapter = head_.rsplit(":", 1)[0]
        if chapter != last:
            chapters.append([])
            last = chapter
        chapters[-1].append(verse.strip())
    return "\n\n".join("\n".join(c) for c in chapters)


def sample_texts(n, seed=99):
    """Texts to train the vocabulary on."""
    rng = random.Random(seed)
    out = []
    for _ in range(n):
        out.append("".join(s for s, _ in text_sample(rng, False)))
        things, text, rel = scene(rng, 192, 192)
        out += [" ".join((q, a)) for q, a, _ in scene_turns(rng, things, text, rel, 192, 192, 3)]
        out.append(moving_text(rng))
        out += [phrase(rng)[1], " ".join(reading_items(rng, 192, 192)).lower(), rng.choice(ASK_SPEECH + ASK_READ + ASK_VIDEO + ASK_DIGIT)]
    return out


def moving_text(rng):
    return f"A {rng.choice(list(COLORS))} {rng.choice(SHAPES)} moves {rng.choice(['up', 'down', 'from left to right', 'from right to left'])}. The digit is 7."


def make_base(folder):
    """corpus.txt and tokenizer.json."""
    os.makedirs(folder, exist_ok=True)
    text = corpus_text()
    with open(os.path.join(folder, "corpus.txt"), "w", encoding="utf-8") as f:
        f.write(text)
    words = [w for w in WORDS for _ in range(30)] + [rng_case(w) for w in WORDS for rng_case in (str.capitalize,) for _ in range(3)]
    texts = sample_texts(4000) + words + [" " + w for w in words] + [text[:1500000]]
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        json.dump(train_tokenizer(texts, 2048), f, ensure_ascii=False)


def write_y4m(path, frames, fps=1, k444=False):
    """Frames (Pillow) as y4m, BT.601 in its limited range, 4:2:0 or 4:4:4."""
    w, h = frames[0].size
    with open(path, "wb") as f:
        f.write(f"YUV4MPEG2 W{w} H{h} F{fps}:1 Ip A1:1 C{'444' if k444 else '420jpeg'}\n".encode())
        for im in frames:
            r, g, b = np.moveaxis(np.asarray(im, np.float64), 2, 0)
            y = 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255
            u = 128 + (-37.797 * r - 74.203 * g + 112. * b) / 255
            v = 128 + (112. * r - 93.786 * g - 18.214 * b) / 255
            f.write(b"FRAME\n" + np.rint(y).astype(np.uint8).tobytes())
            for c in (u, v):
                c = c if k444 else c.reshape(h // 2, 2, w // 2, 2).mean((1, 3))
                f.write(np.rint(c).astype(np.uint8).tobytes())


def write_wav(path, samples):
    with wave.open(path, "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(16000)
        f.writeframes(samples.tobytes())


def make_examples(folder, seed=2026):
    """The inputs that the project ships; their seed is not one of training."""
    rng = random.Random(f"examples/{seed}")
    os.makedirs(folder, exist_ok=True)
    at = lambda name: os.path.join(folder, name)  # noqa: E731
    says = {}
    things, text, _ = scene(rng, 192, 192, 2)
    paint(things, 192, 192, (255, 255, 255)).save(at("scene.png"), optimize=True)
    says["scene.png"] = sentence(text)
    things, text, _ = scene(rng, 256, 192, 3)
    paint(things, 256, 192, (250, 246, 232)).save(at("shapes.png"), optimize=True)
    says["shapes.png"] = box_json(sorted(things, key=lambda o: o.x), 256, 192)
    text_picture(rng, 256, 128, ["bridge", "417"]).save(at("words.png"), optimize=True)
    says["words.png"] = "bridge 417"
    text_picture(rng, 192, 128, ["25"]).save(at("number.png"), optimize=True)
    says["number.png"] = "25"
    speaker = Speaker()
    write_wav(at("speech.wav"), speaker.say("the green train near the river", "en-us+f3", 160, 50))
    says["speech.wav"] = "the green train near the river"
    frames, text, _, _ = moving(rng, 96, 96, 5)
    write_y4m(at("clip.y4m"), frames)
    write_wav(at("clip.wav"), speaker.say("seven", "en", 150, 45))
    says["clip.y4m"], says["clip.wav"] = text, "The digit is 7."
    with open(at("tools.json"), "w", encoding="utf-8") as f:
        json.dump([TOOLS[n] for n in ("get_weather", "set_timer", "send_message", "draw_shape")], f, indent=1)
    return says


if __name__ == "__main__":
    import sys
    import time
    if sys.argv[1] == "base":
        make_base(sys.argv[2])
    elif sys.argv[1] == "examples":
        print(json.dumps(make_examples(*sys.argv[2:]), indent=1))
    else:
        m = Maker(sys.argv[2] + "/tokenizer.json", sys.argv[2] + "/corpus.txt")
        for kind in sys.argv[3:] or ["txt", "img", "aud", "vid"]:
            for i in range(3):
                t = time.time()
                b = m.block(kind, i)
                print(kind, f"{time.time() - t:.2f} s, filled {b['filled']:.2f}, labels {(b['labels'][:, 2] > 0).sum()}, dropped {b['dropped']},"
                      f" answers {b['labels'][:, 3].max()}, pics {b['pics'].shape if 'pics' in b else None}")
            for row in range(2):
                print(repr(m.tok.decode([i for i in b["ids"][row] if i not in (19, 20, 23)])))
