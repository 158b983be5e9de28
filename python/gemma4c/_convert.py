"""Python values on their way to the engine: the one place that says what is accepted. A wrong type is a TypeError, a
value that cannot be handed over a ValueError, both with the name of what was wrong."""

from __future__ import annotations

import ctypes
import itertools
import json
import math
import os
from collections.abc import Iterable
from typing import Any

INT_MAX = 2**31 - 1
MAX_TOKENS = 2**22  # of one call: more than any context; what never ends must not fill the memory


def type_error(name: str, expected: str, value: object) -> TypeError:
    return TypeError(f"{name}: expected {expected}, found {type(value).__name__}")


def integer(name: str, value: object, low: int = 0, high: int = INT_MAX) -> int:
    """A number that fits into the C type it goes to. numpy's integers are welcome, truth values are not."""
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise type_error(name, "an integer", value)
    try:
        n = int(value.__index__())  # type: ignore[attr-defined]
    except TypeError:  # an array of several
        raise type_error(name, "an integer", value) from None
    if not low <= n <= high:
        raise ValueError(f"{name}: expected {low} to {high}, found {n if abs(n) < 10**30 else 'more digits'}")
    return n


def number(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number."""
    if isinstance(value, (bool, str, bytes, bytearray)) or not (
            hasattr(type(value), "__float__") or hasattr(type(value), "__index__")):
        raise type_error(name, "a number", value)
    try:
        x = float(value)  # type: ignore[arg-type]
    except (TypeError, OverflowError):
        raise ValueError(f"{name}: expected a number, found {type(value).__name__} that is none") from None
    if not (low <= x <= high and math.isfinite(x)):
        raise ValueError(f"{name}: expected a number from {low:g} to {high:g}, found {x}")
    return x


def flag(name: str, value: object) -> int:
    if not isinstance(value, bool):
        raise type_error(name, "True or False", value)
    return int(value)


def text(name: str, value: object) -> bytes:
    """UTF-8. What has no UTF-8 (a lone surrogate) is refused; bytes are taken as they are."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if not isinstance(value, str):
        raise type_error(name, "text", value)
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as e:
        raise ValueError(f"{name}: character {e.start} is half of a surrogate pair and has no UTF-8") from None


def word(name: str, value: object) -> bytes:
    """Text that C reads up to its NUL."""
    data = text(name, value)
    if b"\0" in data:
        raise ValueError(f"{name}: expected text without a NUL, found one at byte {data.index(0)}")
    return data


def path(name: str, value: object) -> bytes:
    """A file's name."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise type_error(name, "a path", value)
    try:
        data = os.fsencode(value)
    except (UnicodeEncodeError, TypeError):
        raise ValueError(f"{name}: is no file's name") from None
    if b"\0" in data:
        raise ValueError(f"{name}: expected a file's name, found a NUL in it")
    if not data:
        raise ValueError(f"{name}: is empty")
    return data


def token_ids(name: str, value: object, n_vocab: int) -> ctypes.Array[ctypes.c_int32]:
    """Ids of a vocabulary of n_vocab tokens, (n,)."""
    if isinstance(value, (str, bytes, bytearray, dict)) or not isinstance(value, Iterable):
        raise type_error(name, "token ids", value)
    given = list(itertools.islice(value, MAX_TOKENS + 1))
    if len(given) > MAX_TOKENS:
        raise ValueError(f"{name}: expected at most {MAX_TOKENS} tokens, found more")
    ids = [integer(f"{name}[{i}]", t, 0, n_vocab - 1) for i, t in enumerate(given)]
    return (ctypes.c_int32 * len(ids))(*ids)


def plain(value: Any) -> Any:
    """What json does not know and means the same: numpy's numbers and arrays."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON")


def document(name: str, value: object) -> bytes:
    """JSON, in ASCII: what is no text in it is the engine's to refuse, with its place."""
    try:
        return json.dumps(value, allow_nan=False, default=plain).encode("ascii")
    except TypeError as e:
        raise TypeError(f"{name}: {e}") from None
    except RecursionError:
        raise ValueError(f"{name}: is nested too deeply") from None
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from None
