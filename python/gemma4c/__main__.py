"""The program: `gemma4` and `python -m gemma4c` become the one that the package carries, with its options."""

from __future__ import annotations

import os
import sys


def main() -> None:
    from ._library import beside

    program = beside("gemma4")
    if program is None:
        sys.exit("gemma4: the program is not beside the package: `pip install ./python` builds it, and so does `make`")
    try:
        os.execv(program, ["gemma4"] + sys.argv[1:])
    except OSError as e:
        sys.exit(f"gemma4: {program}: {e.strerror}")


if __name__ == "__main__":
    main()
