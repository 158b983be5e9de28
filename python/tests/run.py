#!/usr/bin/env python3
"""The tests of the Python package: python3 python/tests/run.py [NAME...] (test_NAME.py; all without a name).

Run them with the package on the path (PYTHONPATH=python, or installed). Only the standard library is needed; what needs
numpy, Pillow, mypy and so on is skipped where they are not. The last line is "N passed, N failed[, N skipped]"."""

import os
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)


class Result(unittest.TextTestResult):
    """Counts, and tells how long a slow test took. (testsRun counts skipped ones or not, as the version has it.)"""

    passed = 0

    def addSuccess(self, test):
        self.passed += 1
        super().addSuccess(test)

    def startTest(self, test):
        self._begun = time.monotonic()
        super().startTest(test)

    def stopTest(self, test):
        seconds = time.monotonic() - self._begun
        if seconds > 2:
            print(f"   {test.id()}: {seconds:.1f} s")
        super().stopTest(test)


def main():
    names = sys.argv[1:] or sorted(f[5:-3] for f in os.listdir(HERE) if f.startswith("test_"))
    suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromName(f"test_{name}") for name in names)
    result = unittest.TextTestRunner(resultclass=Result, verbosity=1, stream=sys.stdout).run(suite)
    for test, why in result.skipped:
        print(f"   skipped: {test.id()}: {why}")
    failed, skipped = len(result.failures) + len(result.errors), len(result.skipped)
    line = f"{result.passed} passed, {failed} failed"
    print(line + (f", {skipped} skipped" if skipped else ""))
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
