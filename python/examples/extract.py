#!/usr/bin/env python3
"""Facts from pictures, as objects: extract.py [--model M.g4] [PICTURE...]

The answer to each picture is an instance of a pydantic class (or, without pydantic, of a dataclass), never anything
else: the schema is held while the model writes. What it says is as good as the model; the tiny one knows shapes and was
not trained on JSON."""

import argparse
import pathlib
from typing import Literal

from gemma4c import Engine

try:
    from pydantic import BaseModel as Base

    def record(cls):
        return cls
except ImportError:
    Base = object
    from dataclasses import dataclass as record

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


@record
class Shape(Base):
    size: Literal["small", "medium", "large"]
    color: Literal["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black"]
    shape: Literal["circle", "square", "triangle", "diamond", "star", "cross", "heart", "ring"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("pictures", nargs="*", type=pathlib.Path, default=[EXAMPLES / "scene.png", EXAMPLES / "number.png"])
    args = parser.parse_args()
    with Engine(args.model) as engine:
        prompts = ([picture, "Describe the picture as JSON."] for picture in args.pictures)
        for answer in engine.batch(prompts, schema=Shape, temperature=0, max_tokens=200):
            print(args.pictures[answer.index].name, repr(answer.parsed))


if __name__ == "__main__":
    main()
