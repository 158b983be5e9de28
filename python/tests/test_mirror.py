"""The mirror of gemma4.h: it is what the tool makes of the header, and what a compiler makes of the same names."""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

from gemma4c import _mirror as c

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CC = os.environ.get("CC", "cc")


def tool(name):
    return subprocess.run([sys.executable, os.path.join(ROOT, "tools", name)], capture_output=True, text=True, check=True).stdout


class Mirror(unittest.TestCase):
    def test_is_what_the_tool_makes(self):
        with open(os.path.join(ROOT, "python", "gemma4c", "_mirror.py"), encoding="utf-8") as f:
            self.assertEqual(f.read(), tool("make_python_mirror.py"), "python3 tools/make_python_mirror.py > python/gemma4c/_mirror.py")

    @unittest.skipUnless(shutil.which(CC), "no C compiler")
    def test_is_what_a_compiler_makes(self):
        with tempfile.TemporaryDirectory() as folder:
            source, program = os.path.join(folder, "proof.c"), os.path.join(folder, "proof")
            with open(source, "w", encoding="utf-8") as f:
                f.write(tool("interface.py"))
            library = os.path.join(ROOT, "build", "libgemma4.a")
            subprocess.run([CC, "-Wall", "-Werror", "-I", ROOT, source, library, "-lm", "-lpthread", "-o", program],
                           check=True)
            lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
        self.assertGreater(len(lines), 600)
        functions = set()
        for line in lines:
            kind, name, *numbers = line.split()
            numbers = [int(n) for n in numbers]
            with self.subTest(line):
                if kind == "value":
                    self.assertEqual(numbers, [getattr(c, name)])
                elif kind == "struct":
                    self.assertEqual(numbers, [ctypes.sizeof(getattr(c, name))])
                elif kind == "field":
                    struct, field = name.split(".")
                    place = getattr(getattr(c, struct), field)
                    self.assertEqual(numbers, [place.offset, place.size])
                else:
                    functions.add(name)
                    result, arguments = c.FUNCTIONS[name]
                    size = 0 if result is None else ctypes.sizeof(result)
                    self.assertEqual(numbers, [len(arguments), size])
        self.assertEqual(functions, set(c.FUNCTIONS))
