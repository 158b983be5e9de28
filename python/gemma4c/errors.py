"""What goes wrong, as exceptions. Each has `code`, the name of the engine's status ("G4_ERR_FORMAT"), and `param`, the
place in what was given where that is known ("messages[0].content").

They are also what Python programs catch anyway: a wrong argument is a ValueError, a file that cannot be read an
OSError, and so on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _mirror as c

if TYPE_CHECKING:
    from .answer import Answer

__all__ = [
    "Gemma4Error", "ArgumentError", "OutOfMemory", "FileError", "FormatError", "VersionError", "UnsupportedError",
    "ContextError", "MismatchError", "Canceled",
]


class Gemma4Error(Exception):
    """Something that the engine refused or could not do. `code`: its status by name; `param`: the place in a request,
    such as "temperature" or "messages[2].content[0].type", or None."""

    code = "G4_ERR_ARGUMENT"

    def __init__(self, message: str, param: str | None = None):
        super().__init__(message)
        self.param = param


class ArgumentError(Gemma4Error, ValueError):
    """A value that is out of range, or a call at the wrong time (of a closed object, after a fork)."""


class OutOfMemory(Gemma4Error, MemoryError):
    """An allocation failed, or what was asked for does not fit."""

    code = "G4_ERR_MEMORY"


class FileError(Gemma4Error, OSError):
    """A file could not be opened, mapped, read or written."""

    code = "G4_ERR_IO"


class FormatError(Gemma4Error, ValueError):
    """Not such a file, truncated, or at odds with itself."""

    code = "G4_ERR_FORMAT"


class VersionError(Gemma4Error):
    """A sound file of a version that this library cannot read."""

    code = "G4_ERR_VERSION"


class UnsupportedError(Gemma4Error):
    """Something that this model or build does not have, such as audio."""

    code = "G4_ERR_UNSUPPORTED"


class ContextError(Gemma4Error, ValueError):
    """The input does not fit in the context window."""

    code = "G4_ERR_CONTEXT"


class MismatchError(Gemma4Error, ValueError):
    """Saved state that was made for another model."""

    code = "G4_ERR_MISMATCH"


class Canceled(Gemma4Error):
    """The call was cancelled, or its time was over. `answer`: what there was of an answer by then, or None."""

    code = "G4_ERR_CANCELED"
    answer: Answer | None = None


_KINDS: dict[int, type[Gemma4Error]] = {
    c.G4_ERR_ARGUMENT: ArgumentError,
    c.G4_ERR_MEMORY: OutOfMemory,
    c.G4_ERR_IO: FileError,
    c.G4_ERR_FORMAT: FormatError,
    c.G4_ERR_VERSION: VersionError,
    c.G4_ERR_UNSUPPORTED: UnsupportedError,
    c.G4_ERR_CONTEXT: ContextError,
    c.G4_ERR_MISMATCH: MismatchError,
    c.G4_ERR_CANCELED: Canceled,
}


def error_of(status: int, message: bytes, param: bytes = b"") -> Gemma4Error:
    """The exception of a status of the engine, with its words."""
    kind = _KINDS.get(status, Gemma4Error)
    return kind(message.decode("utf-8", "replace"), param.decode("utf-8", "replace") or None)


def check(status: int, err: c.g4_error, fault: c.g4_fault | None = None) -> None:
    """Raise what a call of the engine has said, if it failed."""
    if status != c.G4_OK:
        raise error_of(status, err.message, fault.param if fault is not None else b"")
