#!/usr/bin/env python3
"""Draw the diagrams of docs/ as SVG: text stays text, and each brings its own ground, light or dark as the reader prefers.

    python3 tools/diagrams.py [-o docs]                     the diagrams of MODEL.md
    python3 tools/diagrams.py --terminal ./gemma4 [-o docs]  also docs/terminal.svg, from what the program answers now
"""

import argparse
import os
import subprocess
from xml.sax.saxutils import escape

LIGHT = dict(ground="#ffffff", ink="#1f2328", soft="#59636e", line="#59636e", edge="#8c959f", plain="#f6f8fa", weight="#ddf4ff",
             norm="#fff1c9", act="#dafbe1", accent="#cf222e", other="#e9dcff")
DARK = dict(ground="#0d1117", ink="#e6edf3", soft="#9198a1", line="#9198a1", edge="#656c76", plain="#161b22", weight="#0c3358",
            norm="#4a3a0a", act="#113c20", accent="#ff7b72", other="#3b2663")
FONT = "font-family: 'DejaVu Sans', Verdana, 'Segoe UI', sans-serif"
MONO = "font-family: 'DejaVu Sans Mono', Menlo, Consolas, monospace"


def style(c):
    fills = "".join(f".{k} {{ fill: {c[k]}; stroke: {c['edge']} }} " for k in ("plain", "weight", "norm", "act", "other"))
    return (f".ground {{ fill: {c['ground']} }} text {{ fill: {c['ink']} }} .soft {{ fill: {c['soft']} }} "
            f".accent {{ fill: {c['accent']} }} .line {{ stroke: {c['line']}; fill: none }} .head {{ fill: {c['line']}; stroke: none }} "
            f".mark {{ stroke: {c['accent']}; fill: none }} {fills}")


class Drawing:
    def __init__(self, width, height, title):
        self.width, self.height, self.title, self.parts = width, height, title, []

    def text(self, x, y, text, size=13, anchor="middle", kind="", bold=False, mono=False):
        look = f' class="{kind}"' if kind else ""
        weight = ' font-weight="bold"' if bold else ""
        face = f' style="{MONO}"' if mono else ""
        self.parts.append(f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}"{look}{weight}{face} '
                          f'xml:space="preserve">{escape(text)}</text>')

    def box(self, x, y, w, h, text="", kind="plain", size=13):
        """x, y: the middle of the left edge."""
        self.parts.append(f'<rect x="{x:g}" y="{y - h / 2:g}" width="{w:g}" height="{h:g}" rx="5" class="{kind}"/>')
        lines = text.split("\n") if text else []
        for i, line in enumerate(lines):
            first = i == 0 or len(lines) < 2
            self.text(x + w / 2, y + 4.5 + (i - (len(lines) - 1) / 2) * 15, line, size if first else size - 2, kind="" if first else "soft")

    def line(self, *points, arrow=True, kind="line", dash=False):
        d = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
        self.parts.append(f'<path d="{d}" class="{kind}" stroke-width="1.5"{" stroke-dasharray=" + chr(34) + "4 3" + chr(34) if dash else ""}/>')
        if arrow:
            (x0, y0), (x1, y1) = points[-2:]
            dx, dy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
            tip = [(x1, y1), (x1 - 8 * dx - 4 * dy, y1 - 8 * dy - 4 * dx), (x1 - 8 * dx + 4 * dy, y1 - 8 * dy + 4 * dx)]
            self.parts.append('<path d="M' + " L".join(f"{x:g} {y:g}" for x, y in tip) + ' Z" class="head"/>')

    def circle(self, x, y, text):
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="11" class="plain"/>')
        self.text(x, y + 5, text, 15)

    def svg(self, dark=False):
        sheet = style(DARK) if dark else style(LIGHT) + f"@media (prefers-color-scheme: dark) {{ {style(DARK)} }}"
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" height="{self.height}" '
                f'viewBox="0 0 {self.width} {self.height}" role="img">\n<title>{escape(self.title)}</title>\n'
                f'<style>text {{ {FONT} }} {sheet}</style>\n'
                f'<rect width="{self.width}" height="{self.height}" rx="8" class="ground"/>\n' + "\n".join(self.parts) + "\n</svg>\n")


def branch(d, stream, y, boxes, gap=22, drop=52, start=40, sign="+"):
    """A branch of a residual stream at x = stream: out to the right through boxes (width, text, kind), and back below."""
    x = stream + start
    d.line((stream, y), (x, y))
    for i, (w, text, kind) in enumerate(boxes):
        d.box(x, y, w, 44, text, kind)
        x += w
        if i + 1 < len(boxes):
            d.line((x, y), (x + gap, y))
            x += gap
    d.line((x, y), (x + 14, y), (x + 14, y + drop), (stream + 11, y + drop))
    d.circle(stream, y + drop, sign)


def legend(d, x, y, kinds):
    names = {"weight": "weights", "norm": "norms", "act": "no weights", "other": "keys and values", "plain": "values"}
    for kind in kinds:
        d.parts.append(f'<rect x="{x}" y="{y - 11}" width="16" height="14" rx="3" class="{kind}"/>')
        d.text(x + 22, y, names[kind], 12, "start", "soft")
        x += 40 + 7.2 * len(names[kind])


def layer():
    d = Drawing(860, 560, "One decoder layer")
    d.text(20, 30, "One decoder layer", 16, "start", bold=True)
    legend(d, 440, 30, ("weight", "norm", "act", "other"))
    s = 60
    d.text(s, 62, "x (hidden)", 13)
    d.line((s, 70), (s, 141), arrow=False)
    branch(d, s, 95, [(92, "attn_norm", "norm"), (92, "q, k, v", "weight"), (112, "norm of heads\nthen RoPE: q, k", "norm"),
                      (128, "attention\nsoftmax(q . k) v", "act"), (62, "o", "weight"), (120, "attn_post_norm", "norm")])
    d.box(346, 176, 190, 40, "keys and values so far\nthe window, or everything", "other")
    d.line((441, 156), (441, 135), (468, 135), (468, 117), dash=True)
    d.line((s, 158), (s, 271), arrow=False)
    branch(d, s, 225, [(92, "mlp_norm", "norm"), (92, "gate, up", "weight"), (128, "gelu(gate) * up", "act"), (92, "down", "weight"),
                       (124, "mlp_post_norm", "norm")])
    d.text(742, 221, "26B-A4B: experts", 12, "start", "soft")
    d.text(742, 237, "beside it, below", 12, "start", "soft")
    d.line((s, 288), (s, 371), arrow=False)
    branch(d, s, 325, [(92, "ple_gate", "weight"), (128, "gelu(gate) * p[l]", "act"), (92, "ple_proj", "weight"), (92, "ple_norm", "norm")])
    d.text(592, 321, "E2B and E4B only:", 12, "start", "soft")
    d.text(592, 337, "p[l] is the layer's own input", 12, "start", "soft")
    d.line((s, 388), (s, 407))
    d.circle(s, 419, "\u00d7")
    d.line((118, 419), (s + 12, 419))
    d.text(124, 424, "scalar: one for the layer", 12, "start")
    d.line((s, 431), (s, 456))
    d.text(s, 474, "next layer", 13)

    d.parts.append('<rect x="290" y="400" width="555" height="146" rx="8" class="line" stroke-dasharray="4 3"/>')
    d.text(302, 420, "26B-A4B (MoE) in the place of the MLP branch; each path reads x through its own norm", 11, "start", "soft")
    d.box(304, 456, 250, 30, "mlp_norm, dense MLP, mlp_post_norm1", "weight", 11)
    d.box(304, 492, 250, 30, "moe_norm, 8 experts, mlp_post_norm2", "weight", 11)
    d.box(304, 526, 250, 26, "router of x: weights of 8 in 128", "weight", 11)
    d.line((429, 513), (429, 507))
    d.line((554, 456), (586, 456), (586, 463))
    d.line((554, 492), (586, 492), (586, 485))
    d.circle(586, 474, "+")
    d.line((597, 474), (618, 474))
    d.box(618, 474, 124, 32, "mlp_post_norm", "norm")
    d.line((742, 474), (762, 474))
    d.text(768, 479, "added to x", 12, "start")
    return d


def per_layer_inputs():
    d = Drawing(860, 360, "Per-layer embeddings")
    d.text(20, 30, "Per-layer embeddings (PLE): E2B and E4B", 16, "start", bold=True)
    legend(d, 500, 30, ("weight", "norm", "act", "plain"))
    d.box(20, 90, 92, 40, "token id\nof a position", "plain")
    d.line((112, 90), (150, 90))
    d.box(150, 90, 150, 44, "ple.embed\na row: layers x 256", "weight")
    d.line((300, 90), (338, 90))
    d.box(338, 90, 106, 40, "\u00d7 sqrt(256)", "act")
    d.text(225, 60, "on disk: looked up, never multiplied", 12, kind="soft")
    d.text(20, 130, "soft tokens (pictures, sound): the row of the pad token", 12, "start", "soft")
    d.box(20, 190, 92, 40, "embedding\nx, scaled", "plain")
    d.line((112, 190), (150, 190))
    d.box(150, 190, 150, 44, "ple.proj\nhidden to layers x 256", "weight")
    d.line((300, 190), (338, 190))
    d.box(338, 190, 106, 40, "\u00d7 hidden^-0.5", "act", 12)
    d.line((444, 190), (466, 190))
    d.box(466, 190, 122, 44, "ple.norm\neach 256 by itself", "norm")
    d.line((444, 90), (610, 90), (610, 129))
    d.line((588, 190), (610, 190), (610, 151))
    d.text(20, 230, "soft tokens: themselves", 12, "start", "soft")
    d.circle(610, 140, "+")
    d.line((621, 140), (650, 140))
    d.box(650, 140, 80, 40, "\u00d7 2^-0.5", "act")
    d.line((688, 160), (688, 250))
    d.line((300, 258), (300, 252), (820, 252), (820, 258), arrow=False)
    d.text(700, 216, "one vector of 256", 12, "start", "soft")
    d.text(700, 232, "for each layer", 12, "start", "soft")
    for i, name in enumerate(("p[0]", "p[1]", "p[2]", "p[3]", "...", "p[n-1]")):
        x = 300 + 88 * i
        d.box(x, 272, 80, 28, name, "plain")
        d.line((x + 40, 286), (x + 40, 308))
        d.text(x + 40, 324, "layer " + name[2:-1] if name != "..." else "...", 12)
    d.text(20, 276, "made once, before the first layer", 12, "start", "soft")
    d.text(430, 348, "in layer l:   x = x + rmsnorm(ple_proj(gelu(ple_gate(x)) * p[l]), ple_norm)", 13)
    return d


def shared_keys():
    d = Drawing(860, 330, "Which layers share keys and values")
    d.text(20, 30, "Which layers own keys and values, and who reads them", 16, "start", bold=True)
    for name, n, every, shared, y in (("E2B", 35, 5, 20, 110), ("E4B", 42, 6, 18, 245)):
        first, w = n - shared, 780 / n
        x = lambda i: 60 + i * w  # noqa: E731
        d.text(20, y + 5, name, 14, "start", bold=True)
        for i in range(n):
            full = (i + 1) % every == 0
            kind = ("other" if full else "weight") if i < first else "plain"
            d.parts.append(f'<rect x="{x(i):.4g}" y="{y - 18}" width="{w - 3:.4g}" height="36" rx="3" class="{kind}"/>')
            if full:
                d.text(x(i) + (w - 3) / 2, y - 2, "F", 11, bold=True)
            if i in (0, first - 2, first - 1, first, n - 1):
                d.text(x(i) + (w - 3) / 2, y + 13, str(i), 10, kind="soft")
        # every reader of one kind hangs on one rail
        for owner, top, want in ((first - 1, y - 40, True), (first - 2, y + 40, False)):
            edge = -18 if want else 18
            readers = [i for i in range(first, n) if ((i + 1) % every == 0) == want]
            a, mid = x(owner) + (w - 3) / 2, lambda i: x(i) + (w - 3) / 2  # noqa: E731
            d.line((a, y + edge), (a, top), (mid(readers[-1]), top), arrow=False)
            for i in readers:
                d.line((mid(i), top), (mid(i), y + edge))
            d.text(mid(readers[-1]), top + (-6 if want else 15), f"keys and values of layer {owner}, the last {'full' if want else 'sliding'} one with its own",
                   11, "end", "soft")
    d.parts.append('<rect x="60" y="306" width="14" height="14" rx="3" class="weight"/><rect x="205" y="306" width="14" height="14" rx="3" class="other"/>'
                   '<rect x="335" y="306" width="14" height="14" rx="3" class="plain"/>')
    d.text(80, 318, "sliding, has its own", 12, "start", "soft")
    d.text(225, 318, "full, has its own", 12, "start", "soft")
    d.text(355, 318, "has none: reads another's. F: full layer. 26B-A4B and 31B share none", 12, "start", "soft")
    return d


def masks():
    d = Drawing(860, 300, "Who sees whom")
    d.text(20, 30, "Who sees whom: a row is a query, a column a key", 16, "start", bold=True)
    n, size, window, picture = 12, 16, 5, range(4, 8)

    def grid(x0, title, note, sees):
        d.text(x0, 62, title, 13, "start", bold=True)
        for i in range(n):
            for j in range(n):
                kind = ("other" if i in picture and j in picture and j > i else "weight") if sees(i, j) else "plain"
                d.parts.append(f'<rect x="{x0 + j * size}" y="{74 + i * size}" width="{size - 2}" height="{size - 2}" rx="2" class="{kind}"/>')
        d.text(x0, 288, note, 12, "start", "soft")

    grid(20, "full layer", "everything up to itself", lambda i, j: j <= i)
    grid(310, "sliding layer, window 5", "the last 5, itself included", lambda i, j: i - window < j <= i)
    grid(600, "the same with a picture at 4 to 7", "26B-A4B, 31B: also its own picture's future",
         lambda i, j: i - window < j <= i or (i in picture and j in picture and j > i))
    return d


def chain(d, x, y, steps, w, gap=16, h=40):
    """Boxes below each other, arrows between; returns the bottom."""
    for i, (text, kind) in enumerate(steps):
        d.box(x, y + h / 2, w, h, text, kind)
        y += h
        if i + 1 < len(steps):
            d.line((x + w / 2, y), (x + w / 2, y + gap))
            y += gap
    return y


def to_soft_tokens(d, end, projection, what):
    """From the end of a tower's chain to what stands in the prompt."""
    d.line((220, end - 20), (250, end - 20))
    d.box(250, end - 20, 150, 40, projection + "\nto the text's hidden", "weight")
    d.line((400, end - 20), (430, end - 20))
    d.box(430, end - 20, 190, 40, "soft tokens\none for " + what, "plain")


def vision():
    d = Drawing(860, 500, "Vision tower")
    d.text(20, 30, "Vision tower", 16, "start", bold=True)
    legend(d, 480, 30, ("weight", "norm", "act", "plain"))
    d.text(20, 58, "once for a picture", 12, "start", "soft")
    end = chain(d, 20, 70, [("picture, resized\nsides are multiples of 48", "plain"), ("patches of 16 x 16 x 3\n2 (p - 0.5)", "act"), ("v.patch: 768 to hidden", "weight"),
                            ("+ v.pos\na row for x, a row for y", "weight"), ("16 or 27 layers", "plain"), ("mean of 3 x 3 patches\n\u00d7 sqrt(hidden)", "act"),
                            ("26B, 31B: (h - v.std_bias)\n* v.std_scale", "weight"), ("RMSNorm, no weight", "norm")], 200, gap=12)
    to_soft_tokens(d, end, "v.proj", "48 x 48 pixels")
    d.line((220, 298), (262, 298), dash=True)
    d.parts.append('<rect x="262" y="66" width="580" height="330" rx="8" class="line" stroke-dasharray="4 3"/>')
    d.text(276, 88, "one layer, for every patch", 12, "start", "soft")
    s = 300
    d.text(s, 112, "h")
    d.line((s, 118), (s, 189), arrow=False)
    branch(d, s, 148, [(78, "attn_norm", "norm"), (60, "q, k, v", "weight"), (104, "norm of heads\nRoPE: q, k", "norm"), (78, "attention\nboth ways", "act"), (26, "o", "weight"), (76, "post_norm", "norm")], gap=11, start=20)
    d.line((s, 211), (s, 289), arrow=False)
    branch(d, s, 248, [(84, "mlp_norm", "norm"), (80, "gate, up", "weight"), (116, "gelu(gate) * up", "act"), (60, "down", "weight"), (76, "post_norm", "norm")], gap=11, start=20)
    d.line((s, 311), (s, 332))
    d.text(330, 340, "RoPE, base 100: the first half of a head turns by the patch's x, the second by its y.", 12, "start", "soft")
    d.text(330, 358, "E2B, E4B: q k v o gate up down are clipped linears: input and output are clamped", 12, "start", "soft")
    d.text(330, 376, "to bounds that stand in the checkpoint.", 12, "start", "soft")
    return d


def audio():
    d = Drawing(860, 600, "Audio tower")
    d.text(20, 30, "Audio tower: a conformer", 16, "start", bold=True)
    legend(d, 480, 30, ("weight", "norm", "act", "plain"))
    d.text(20, 58, "once for a block of sound", 12, "start", "soft")
    end = chain(d, 20, 70, [("16 kHz samples, up to 30 s", "plain"), ("log-mel: 128 bands\n100 frames a second", "act"), ("conv0: 3 x 3, stride 2\n128 channels", "weight"),
                            ("LayerNorm, ReLU", "norm"), ("conv1: 3 x 3, stride 2\n32 channels", "weight"), ("LayerNorm, ReLU", "norm"),
                            ("a.in: 32 x 32 to 1024\n25 positions a second", "weight"), ("12 layers", "plain"),
                            ("a.out with bias: to 1536", "weight"), ("RMSNorm, no weight", "norm")], 200, gap=12)
    to_soft_tokens(d, end, "a.proj", "40 ms")
    d.line((220, 454), (262, 454), dash=True)
    d.parts.append('<rect x="262" y="66" width="580" height="466" rx="8" class="line" stroke-dasharray="4 3"/>')
    d.text(276, 88, "one layer, for every position", 12, "start", "soft")
    s = 300
    d.text(s, 112, "h")
    ffn = [(84, "ff1_norm", "norm"), (66, "ff1_up", "weight"), (52, "silu", "act"), (76, "ff1_down", "weight"), (112, "ff1_post_norm", "norm")]
    d.line((s, 118), (s, 179), arrow=False)
    branch(d, s, 138, ffn, gap=13, start=28)
    d.text(776, 178, "times 0.5", 12, "end", "soft")
    d.line((s, 201), (s, 264), arrow=False)
    branch(d, s, 223, [(84, "attn_norm", "norm"), (66, "q, k, v", "weight"), (146, "attention\nlast 12, rel_k, cap 50", "act"), (52, "post", "weight"), (78, "post_norm", "norm")], gap=11, start=28)
    d.line((s, 286), (s, 349), arrow=False)
    branch(d, s, 308, [(80, "conv_norm", "norm"), (64, "conv_in", "weight"), (42, "GLU", "act"), (94, "conv\n5 taps, causal", "weight"), (104, "mid_norm, silu", "norm"), (72, "conv_out", "weight")], gap=9, start=20)
    d.line((s, 371), (s, 434), arrow=False)
    branch(d, s, 393, [(w, t.replace("ff1", "ff2"), k) for w, t, k in ffn], gap=13, start=28)
    d.text(776, 433, "times 0.5", 12, "end", "soft")
    d.line((s, 456), (s, 474))
    d.box(s - 26, 490, 84, 30, "norm", "norm")
    d.line((s + 58, 490), (s + 90, 490))
    d.text(s + 96, 495, "next layer", 12, "start")
    d.text(800, 490, "GLU: the first half times sigmoid of the second", 12, "end", "soft")
    d.text(800, 508, "all matrices are clipped linears, rel_k is not", 12, "end", "soft")
    return d


# ---- A terminal -----------------------------------------------------------------------------------

TALK = (
    "./gemma4 --temp 0 --image examples/scene.png -p 'Describe the picture.'",
    "./gemma4 --temp 0 --audio examples/speech.wav -p 'Transcribe the speech.'",
    "./gemma4 --temp 0 --video examples/clip.y4m --audio examples/clip.wav -p 'Which digit is spoken?'",
    "./gemma4 --temp 0 --think --show-thoughts -p 'What is 47 + 38?'",
    "./gemma4 --temp 0 --tools examples/tools.json -p 'What is the weather in Oslo?'",
    "./gemma4 --temp 0 --image examples/table.png -p 'Detect all shapes.' --boxes /tmp/boxes.png",
)


def terminal(program):
    """What the commands print where both streams go to one place; --quiet leaves the line of times out."""
    lines = []
    for command in TALK:
        ran = command.replace("./gemma4", program, 1) + " --quiet 2>&1"
        answer = subprocess.run(["sh", "-c", ran], stdout=subprocess.PIPE, text=True, check=True, stdin=subprocess.DEVNULL)
        said = answer.stdout.rstrip("\n").replace("}, {", "},\n {").split("\n")  # a list of boxes on several lines
        lines += ["$ " + command, *said, ""]
    lines.pop()
    d = Drawing(860, 64 + 20 * len(lines), "A terminal: commands and what the bundled model answers")
    for i, tone in enumerate(("#ff5f57", "#febc2e", "#28c840")):
        d.parts.append(f'<circle cx="{22 + 18 * i}" cy="20" r="6" fill="{tone}"/>')
    for i, line in enumerate(lines):
        command = line.startswith("$ ")
        d.text(18, 56 + 20 * i, line, 13, "start", kind="soft" if command else "", bold=not command, mono=True)
    return d


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-o", "--output", default="docs")
    p.add_argument("--terminal", metavar="PROGRAM", help="the built program")
    p.add_argument("--dark", action="store_true", help="dark only, for converters that know no media queries")
    a = p.parse_args()
    drawings = {"layer": layer(), "per-layer-inputs": per_layer_inputs(), "shared-keys": shared_keys(), "masks": masks(), "vision-tower": vision(),
                "audio-tower": audio()}
    if a.terminal:
        drawings["terminal"] = terminal(a.terminal)
    for name, drawing in drawings.items():
        with open(os.path.join(a.output, name + ".svg"), "w", encoding="utf-8") as f:
            f.write(drawing.svg(a.dark))


if __name__ == "__main__":
    main()
