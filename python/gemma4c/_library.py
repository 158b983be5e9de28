"""The shared library: where it is, and its functions with the types that the header gives them. Calls release the GIL.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

from . import _mirror as c

_NAME = "libgemma4.dylib" if sys.platform == "darwin" else "libgemma4.so"
HERE = os.path.dirname(os.path.abspath(__file__))


def beside(name: str) -> str | None:
    """A file of the package: beside this one where it is installed, else in the folder that the sources stand in."""
    above = os.path.dirname(os.path.dirname(HERE))
    for path in (os.path.join(HERE, name), os.path.join(above, name), os.path.join(above, "build", name),
                 os.path.join(above, "models", name)):
        if os.path.isfile(path):
            return path
    return None


def _open() -> ctypes.CDLL:
    path = os.environ.get("GEMMA4C_LIBRARY") or beside(_NAME)
    if path is None:
        raise ImportError(f"{_NAME} is neither beside gemma4c nor in ../build: `pip install ./python` builds it, and "
                          "so does `make build/libgemma4.so`; GEMMA4C_LIBRARY names another")
    try:
        library = ctypes.CDLL(path)
        for name, (result, arguments) in c.FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as e:
        raise ImportError(f"{path}: {e}") from None
    found = library.g4_version().decode()
    if found != c.VERSION:
        raise ImportError(f"{path}: expected version {c.VERSION}, found {found}")
    return library


lib: Any = _open()


def bytes_at(struct: ctypes.Structure, field: str, n: int) -> bytes:
    """n bytes that a pointer in a struct points to: of a `const char *`, ctypes itself reads up to a NUL only."""
    place = ctypes.addressof(struct) + getattr(type(struct), field).offset
    address = ctypes.c_void_p.from_address(place).value
    return ctypes.string_at(address, n) if address else b""


def text_at(struct: ctypes.Structure, field: str, n: int) -> str:
    """The same as text. What the engine writes is UTF-8, but a model may write bytes that are none."""
    return bytes_at(struct, field, n).decode("utf-8", "replace")
