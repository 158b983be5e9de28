#!/usr/bin/env python3
"""Draw examples/table.png: three things on a table in side light, with shading and soft shadows, for a picture of boxes.

    python3 tools/table_picture.py examples/table.png
    ./gemma4 --temp 0 --image examples/table.png -p 'Detect all shapes.' --boxes docs/boxes.png
"""

import math
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

W, H, FINE = 256, 192, 4  # drawn FINE times as large, then reduced
THINGS = (("circle", 62, 60, 34, (196, 40, 44)), ("square", 186, 70, 36, (40, 92, 190)), ("star", 118, 144, 32, (226, 176, 30)))


def outline(kind, x, y, r):
    if kind == "square":
        return [(x + 0.85 * r * i, y + 0.85 * r * j) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    n = 10 if kind == "star" else 90
    radius = [0.45 * r if kind == "star" and i % 2 else r for i in range(n)]
    return [(x + q * math.sin(2 * math.pi * i / n), y - q * math.cos(2 * math.pi * i / n)) for i, q in enumerate(radius)]


def main():
    size = (W * FINE, H * FINE)
    y, x = np.mgrid[0:H * FINE, 0:W * FINE].astype(float)
    across, down = x / size[0], y / size[1]
    table = np.stack([236 - 18 * across - 14 * down, 228 - 20 * across - 16 * down, 214 - 24 * across - 18 * down], -1)
    picture = Image.fromarray(table.astype(np.uint8))
    shadow = Image.new("L", size)
    for kind, cx, cy, r, _ in THINGS:
        ImageDraw.Draw(shadow).polygon([((a + 4) * FINE, (b + 5) * FINE) for a, b in outline(kind, cx, cy, r)], fill=90)
    shadow = shadow.filter(ImageFilter.GaussianBlur(4 * FINE))
    picture = Image.composite(Image.new("RGB", size, (70, 60, 50)), picture, shadow)
    for kind, cx, cy, r, colour in THINGS:
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).polygon([(a * FINE, b * FINE) for a, b in outline(kind, cx, cy, r)], fill=255)
        light = np.clip(1.12 - 0.35 * ((x - cx * FINE) + (y - cy * FINE)) / (4 * r * FINE), 0.7, 1.25)[..., None]
        picture.paste(Image.fromarray(np.clip(np.array(colour) * light, 0, 255).astype(np.uint8)), mask=mask)
    picture.filter(ImageFilter.GaussianBlur(1.5)).resize((W, H), Image.LANCZOS).save(sys.argv[1], optimize=True)


if __name__ == "__main__":
    main()
