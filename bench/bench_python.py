#!/usr/bin/env python3
"""What Python adds to the engine's own time: PYTHONPATH=python python3 bench/bench_python.py [--model M.g4]

Every function of the library is timed, and so are the callbacks from it, in processor time: what is spent in the
library is what a C program spends too, all the rest is Python's. Both are measured in the same run, so that a busy
machine hits them alike; the median of several runs is printed. The smaller the model, the more Python weighs: the tiny
one of 7 M parameters is the worst there is."""

import argparse
import os
import statistics
import time

import gemma4c
from gemma4c import _library, _mirror

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TEXT = "What do you know of the sea?"
RULES = "root ::= [a-z ]{%d}"  # so that answers have a length
CALLBACKS = ["g4_part_fn", "g4_output_fn", "g4_batch_respond_request_done"]


class Clock:
    """Seconds in the library, without those in callbacks from it."""

    def __init__(self):
        self.inside = 0.0
        for name in _mirror.FUNCTIONS:
            setattr(_library.lib, name, self.timed(getattr(_library.lib, name), 1))
        for name in CALLBACKS:
            kind = getattr(_mirror, name)
            setattr(_mirror, name, lambda *f, kind=kind: kind(*(self.timed(g, -1) for g in f)))

    def timed(self, function, sign):
        def call(*arguments):
            begun = time.process_time()
            try:
                return function(*arguments)
            finally:
                self.inside += sign * (time.process_time() - begun)
        return call


def measure(clock, name, what, rounds):
    """what() gives the tokens of its answers."""
    what()  # the first one fills caches
    added, engine, python = [], [], []
    for _ in range(rounds):
        clock.inside, begun = 0.0, time.process_time()
        tokens = what()
        whole = time.process_time() - begun
        engine.append(clock.inside)
        python.append(whole - clock.inside)
        added.append(python[-1] / engine[-1])
    print(f"{name:8} {tokens:6} tokens: engine {1e3 * statistics.median(engine):9.1f} ms, Python "
          f"{1e3 * statistics.median(python):7.2f} ms: {100 * statistics.median(added):6.3f} %", flush=True)


def hand_over():
    """A picture of 1 MB from an array, and the memory that takes."""
    import tracemalloc

    import numpy as np

    array = np.zeros((640, 546, 3), np.uint8)
    tracemalloc.start()
    gemma4c.load_media(array)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    times = []
    for _ in range(50):
        begun = time.perf_counter()
        gemma4c.load_media(array)
        times.append(time.perf_counter() - begun)
    print(f"array    {array.nbytes / 1e6:.2f} MB in {1e3 * statistics.median(times):.3f} ms, with {peak / array.nbytes:.2f} "
          "times its memory: one copy")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=os.path.join(ROOT, "models", "tiny.g4"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--length", type=int, default=600, help="characters of the long answer; a quarter in a batch")
    parser.add_argument("--items", type=int, default=64, help="answers of the batch")
    args = parser.parse_args()
    clock = Clock()
    engine = gemma4c.Engine(args.model, threads=args.threads)
    options = dict(grammar=RULES % args.length, temperature=1.0, seed=5)

    def respond():
        with engine.session() as session:
            return session.respond(TEXT, **options).usage.completion_tokens

    def stream():
        with engine.session() as session, session.stream(TEXT, **options) as pieces:
            for _ in pieces:
                pass
            return pieces.answer.usage.completion_tokens

    def batch():
        prompts = [f"What is {i} + {3 * i % 50}?" for i in range(args.items)]
        return sum(a.usage.completion_tokens for a in engine.batch(
            prompts, parallel=8, grammar=RULES % (args.length // 4), temperature=1.0))

    def complete():
        with engine.session() as session:
            return session.complete(TEXT, **options).usage.completion_tokens

    measure(clock, "complete", complete, args.rounds)
    if engine.info.is_chat:
        measure(clock, "respond", respond, args.rounds)
        measure(clock, "stream", stream, args.rounds)
        measure(clock, "batch", batch, args.rounds)
    hand_over()


if __name__ == "__main__":
    main()
