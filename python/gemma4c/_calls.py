"""Long calls of the engine. On the main thread they run on a thread of their own, so that Ctrl-C reaches Python at
once: it stops the call, waits until that has ended (within a token), and is raised. Other threads call directly."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Any, Callable, TypeVar

T = TypeVar("T")
_running: weakref.WeakSet[Work] = weakref.WeakSet()
os.register_at_fork(after_in_child=_running.clear)  # their threads are the parent's


class Work:
    """One call that runs on a thread of its own, once that is started."""

    def __init__(self, function: Callable[[], Any]):
        self._function = function
        self.result: Any = None
        self.error: BaseException | None = None
        self.has_ended = False
        # Locked until it has ended. Not Thread.join(), which, interrupted once, takes the thread for dead (Python 3.11),
        # nor an Event, which may answer an interrupt with a RuntimeError.
        self._gate = threading.Lock()
        self._gate.acquire()
        self._claim = threading.Lock()  # taken once: by the thread that runs it, or by who gives it up before
        # A daemon: an interpreter that ends stops its sessions first (see engine.py) and need not wait for more.
        self._thread = threading.Thread(target=self._run, name="gemma4c", daemon=True)

    def start(self) -> None:
        _running.add(self)
        self._thread.start()

    def _run(self) -> None:
        if not self._claim.acquire(blocking=False):
            return
        try:
            self.result = self._function()
        except BaseException as e:  # it is raised again where the call was made
            self.error = e
        finally:
            self.has_ended = True
            self._gate.release()

    def join(self, timeout: float = threading.TIMEOUT_MAX) -> None:
        until = time.monotonic() + timeout
        while not self.has_ended and time.monotonic() < until:
            # Who passes is interrupted, perhaps, before it lets others pass: they look again.
            if self._gate.acquire(timeout=min(timeout, 1)):
                self._gate.release()

    def wait(self) -> None:
        """Until it has ended, whatever else is interrupted meanwhile."""
        while not self.has_ended:
            try:
                self.join()
            except KeyboardInterrupt:
                continue

    def give_up(self) -> None:
        """The same where start() itself may have been interrupted: what has not begun will not begin."""
        if not self._claim.acquire(blocking=False):
            self.wait()

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
        work.start()
        work.join()
    except BaseException:  # KeyboardInterrupt, or what another signal handler raises
        cancel()
        work.give_up()
        raise
    result: T = work.value()
    return result


def wait_for_all() -> None:
    """Until no call runs any more: the interpreter is about to go."""
    for work in list(_running):
        work.join(timeout=10)
