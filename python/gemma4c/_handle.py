"""Who owns what: a handle holds one object of the engine and closes it once, when nobody uses it any more.

An object may be closed twice, in any order, on any thread, in the middle of a call, by the garbage collector or at the
end of the interpreter. close() therefore only says that no new use may begin; the last use that ends frees the object.
Whatever stands on another object (a session on its engine) holds a use of that."""

from __future__ import annotations

import os
import threading
from typing import Any, Callable, TypeVar

from .errors import ArgumentError

T = TypeVar("T", bound="Closable")


class Closable:
    """What close() ends, and the end of a `with`."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self: T) -> T:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Handle:
    def __init__(self, what: str, pointer: Any, free: Callable[[Any], None], parent: Handle | None = None):
        self.what = what
        self._pointer, self._free = pointer, free
        self._parent = parent
        self._pid = os.getpid()
        self._lock = threading.RLock()  # a finaliser may run while this thread holds it
        self._users = 0
        self._closed = False
        if parent is not None:
            parent.hold()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def is_foreign(self) -> bool:
        """After a fork: it is the parent's. So are its threads, and its locks may be held for ever here."""
        return self._pid != os.getpid()

    def check_process(self) -> None:
        if self.is_foreign:
            raise ArgumentError(f"this {self.what} was opened before fork(): its threads are not in this process; "
                                "open another here, or send the engine by pickle")

    def hold(self) -> Any:
        """Begin a use: the object's address, valid until release()."""
        self.check_process()
        with self._lock:
            if self._closed:
                raise ArgumentError(f"this {self.what} is closed")
            self._users += 1
            return self._pointer

    def release(self) -> None:
        if self.is_foreign:
            return
        with self._lock:
            self._users -= 1
            is_last = self._closed and self._users == 0
        if is_last:
            self._end()

    def close(self) -> None:
        if self.is_foreign:
            self._closed = True
            return
        with self._lock:
            is_last = not self._closed and self._users == 0
            self._closed = True
        if is_last:
            self._end()

    def _end(self) -> None:
        self._free(self._pointer)
        self._pointer = None
        if self._parent is not None:
            self._parent.release()

    def __enter__(self) -> Any:
        return self.hold()

    def __exit__(self, *exc: object) -> None:
        self.release()
