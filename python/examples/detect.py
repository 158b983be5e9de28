#!/usr/bin/env python3
"""Find things in a picture and draw boxes around them: detect.py [--model M.g4] [-o OUT.png] [PICTURE]"""

import argparse
import pathlib

from gemma4c import Engine, draw_boxes

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--prompt", default="Detect all shapes.")
    parser.add_argument("-o", "--out", default="boxes.png")
    parser.add_argument("picture", nargs="?", type=pathlib.Path, default=EXAMPLES / "shapes.png")
    args = parser.parse_args()
    with Engine(args.model) as engine, engine.session() as session:
        answer = session.respond([args.picture, args.prompt], temperature=0)
        for box in answer.boxes:
            print(f"{box.label}: {box.x0}, {box.y0} to {box.x1}, {box.y1}")
        draw_boxes(args.picture, answer.boxes, args.out)


if __name__ == "__main__":
    main()
