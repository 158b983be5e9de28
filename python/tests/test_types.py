"""The package is typed: mypy --strict and pyright find nothing, in it and in a program that uses it."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import unittest

import gemma4c

PACKAGE = os.path.dirname(gemma4c.__file__)
USE = """
from dataclasses import dataclass

from gemma4c import Answer, Canceled, Engine, Gemma4Error, MediaOptions


@dataclass
class Point:
    x: int


def main() -> str:
    with Engine(media=MediaOptions(frames=8)) as engine, engine.session(system="Be short.") as session:
        answer: Answer = session.respond("hi", schema=Point, temperature=0.5, stop=["x"], tools=[main])
        for call in answer.calls:
            print(call.name, call.arguments, call.run().content)
        for piece in session.stream("hi"):
            print(piece.upper())
        answers = engine.batch(["a", "b"], parallel=2)
        for one in answers:
            print(one.usage.prompt_tokens + 1)
        answers.close()
        with session.stream("hi") as stream:
            for part in stream.pieces():
                print(part.kind)
        try:
            session.fork().rewind(0)
        except Canceled as canceled:
            return canceled.answer.text if canceled.answer else ""
        except Gemma4Error as error:
            return error.code
        return answer.text
"""


class Types(unittest.TestCase):
    def run_checker(self, *command):
        with tempfile.TemporaryDirectory() as folder:
            use = os.path.join(folder, "use.py")
            with open(use, "w", encoding="utf-8") as f:
                f.write(USE)
            env = {**os.environ, "MYPYPATH": os.path.dirname(PACKAGE), "PYTHONPATH": os.path.dirname(PACKAGE)}
            for target in (PACKAGE, use):
                done = subprocess.run([sys.executable, "-m", *command, target], stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, universal_newlines=True, cwd=folder, env=env)
                self.assertEqual(done.returncode, 0, done.stdout)

    @unittest.skipUnless(importlib.util.find_spec("mypy"), "no mypy")
    def test_mypy(self):
        self.run_checker("mypy", "--strict", "--no-error-summary")

    @unittest.skipUnless(importlib.util.find_spec("pyright"), "no pyright")
    def test_pyright(self):
        self.run_checker("pyright", "--pythonpath", sys.executable)
