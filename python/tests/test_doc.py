"""What docstrings and README.md show is what happens."""

import doctest
import importlib
import importlib.util
import os
import pkgutil
import re
import unittest

import gemma4c

README = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "README.md")


class Finder(doctest.DocTestFinder):
    """Without numpy, nothing of what gives arrays."""

    NUMPY = ("Engine.tokenize", "Engine.perplexity", "Engine.encode")

    def find(self, *args, **more):
        found = super().find(*args, **more)
        return [t for t in found if importlib.util.find_spec("numpy") or not t.name.endswith(self.NUMPY)]


def load_tests(loader, tests, pattern):
    for module in pkgutil.iter_modules(gemma4c.__path__, "gemma4c."):
        if module.name != "gemma4c.__main__":
            tests.addTests(doctest.DocTestSuite(importlib.import_module(module.name), test_finder=Finder()))
    tests.addTests(doctest.DocTestSuite(gemma4c))
    if os.path.exists(README):
        tests.addTest(doctest.DocFileSuite(README, module_relative=False, encoding="utf-8"))
    return tests


class Docstrings(unittest.TestCase):
    def test_every_public_name_has_one(self):
        for name in gemma4c.__all__:
            value = getattr(gemma4c, name)
            if name != "__version__":
                self.assertTrue(value.__doc__, name)
            for member, inner in vars(value).items() if isinstance(value, type) else ():
                if not member.startswith("_") and callable(inner):
                    self.assertTrue(getattr(inner, "__doc__", None), f"{name}.{member}")

    def test_names_in_readme(self):
        if not os.path.exists(README):
            self.skipTest("no README.md")
        with open(README, encoding="utf-8") as f:
            for name in re.findall(r"`(?:engine|session)\.(\w+)", f.read()):
                self.assertTrue(hasattr(gemma4c.Engine, name) or hasattr(gemma4c.Session, name) or
                                name in ("info", "messages"), name)
