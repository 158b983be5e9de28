"""Long calls of the engine. On the main thread they run on a thread of their own, so that Ctrl-C reaches Python at
once: it stops the call, waits until that has ended (within a token), and is raised. Other threads call directly."""

from __future__ import annotations

import threading
import weakref
from typing import Any, Callable, TypeVar

T = TypeVar("T")
_running: weakref.WeakSet[Work] = weakref.WeakSet()


class Work:
    """One call that runs on a thread of its own."""

    def __init__(self, function: Callable[[], Any]):
        self._function = function
        self.result: Any = None
        self.error: BaseException | None = None
        # Not Thread.join(): interrupted once, that of Python 3.11 takes the thread for dead.
        self._ended = threading.Event()
        # A daemon: an interpreter that ends stops its sessions first (see engine.py) and need not wait for more.
        self.thread = threading.Thread(target=self._run, name="gemma4c", daemon=True)
        _running.add(self)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self._function()
        except BaseException as e:  # it is raised again where the call was made
            self.error = e
        finally:
            self._ended.set()

    @property
    def has_ended(self) -> bool:
        return self._ended.is_set()

    def join(self, timeout: float | None = None) -> None:
        self._ended.wait(timeout)

    def wait(self) -> None:
        """Until it has ended, whatever else is interrupted meanwhile."""
        while not self.has_ended:
            try:
                self.join()
            except KeyboardInterrupt:
                continue

    def value(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result


def interruptible(function: Callable[[], T], cancel: Callable[[], None]) -> T:
    """function(), which cancel() can end from another thread."""
    if threading.current_thread() is not threading.main_thread():
        return function()
    work = Work(function)
    try:
        work.join()
    except BaseException:  # KeyboardInterrupt, or what another signal handler raises
        cancel()
        work.wait()
        raise
    result: T = work.value()
    return result


def wait_for_all() -> None:
    """Until no call runs any more: the interpreter is about to go."""
    for work in list(_running):
        work.join(timeout=10)
