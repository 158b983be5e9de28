#!/usr/bin/env python3
"""Speech to text, file by file: transcribe.py [--model M.g4] [SOUND...]

Sounds of any length are cut at quiet places into pieces of at most 30 s by the engine; what they say is printed as it is
understood."""

import argparse
import pathlib

from gemma4c import Engine, Gemma4Error

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--prompt", default="Transcribe the speech.")
    parser.add_argument("sounds", nargs="*", type=pathlib.Path, default=[EXAMPLES / "speech.wav"])
    args = parser.parse_args()
    with Engine(args.model) as engine:
        for sound in args.sounds:
            try:
                medium = engine.load_media(sound)
                print(f"{sound.name} ({medium.seconds:.1f} s): ", end="", flush=True)
                with engine.session() as session, session.stream([medium, args.prompt], temperature=0) as stream:
                    for text in stream:
                        print(text, end="", flush=True)
                print()
            except Gemma4Error as error:
                print(f"{sound}: {error}")


if __name__ == "__main__":
    main()
