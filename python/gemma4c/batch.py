"""Many prompts, several answered at a time: g4_batch as a generator."""

from __future__ import annotations

import ctypes
import os.path
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Generator, Iterable, Iterator

from . import _convert, _mirror as c
from ._calls import interruptible
from ._library import lib
from .answer import Answer, Usage, answer_of
from .errors import check, error_of
from .request import (
    Grammars, Messages, Request, chat_only, conversation_of, last_image_size, request_of, tools_of,
)
from .session import Session, Tokens, _known, session_options

if TYPE_CHECKING:
    from .engine import Engine

# Bytes of a token's id, and of so many tokens: fewer are sooner read again than waited for.
_ID = ctypes.sizeof(ctypes.c_int32)
_MIN_SHARED = 32 * _ID


def run_batch(engine: Engine, prompts: Iterable[Any], parallel: int, ordered: bool, errors: str, system: str | None,
              session: tuple[Any, ...], options: dict[str, Any]) -> Generator[Answer, None, None]:
    """See Engine.batch. Arguments are checked here, before the generator is asked for its first answer."""
    options = _known(options)
    for name in ("timeout", "grammar"):
        if name == "timeout" and options[name] is not None:
            raise ValueError("timeout: a batch has none: close its generator to end it")
        if name == "grammar" and options[name] is not None:
            _convert.text(name, options[name])
    if not isinstance(errors, str):
        raise _convert.type_error("errors", '"raise" or "return"', errors)
    if errors not in ("raise", "return"):
        raise ValueError(f'errors: expected "raise" or "return", found {errors[:40]!r}')
    options["tools"] = tools_of(options["tools"])  # an iterator serves all prompts
    if system is not None:
        _convert.text("system", system)
    if isinstance(prompts, (str, bytes, bytearray, dict)) or not hasattr(prompts, "__iter__"):
        raise _convert.type_error("prompts", "several prompts", prompts)
    _convert.flag("ordered", ordered)
    parallel = _convert.integer("parallel", parallel, 1, 256)
    session_options(*session)
    with engine._handle:
        chat_only(engine)
    return _Batch(engine, parallel, system, session, options, errors == "return").answers(iter(prompts), ordered)


class _Job:
    """A prompt on its way to its answer. It holds what the engine points to until it is done."""

    def __init__(self, index: int):
        self.index = index
        self.session: Session | None = None  # not yet
        self.ids = b""  # of the prompt, as far as others may share it; only where the session is new
        self.answer: Answer | None = None
        self.error: Exception | None = None
        self.request: Request | None = None
        self.tokens: Tokens | None = None
        self.keep: Any = None

    @property
    def is_over(self) -> bool:
        return self.answer is not None or self.error is not None


class _Batch:
    def __init__(self, engine: Engine, parallel: int, system: str | None, session: tuple[Any, ...],
                 options: dict[str, Any], gives_errors: bool):
        self._engine, self._parallel, self._options, self._gives_errors = engine, parallel, options, gives_errors
        self._session = dict(zip(("context", "kv", "chunk", "snapshot_bytes"), session))
        self._system: Messages = [{"role": "system", "content": system}] if system is not None else []
        self._jobs: set[_Job] = set()  # begun, and their sessions not idle again
        self._over: list[_Job] = []  # of these, those that are answered or have failed
        self._idle: list[Session] = []
        self._pointer = ctypes.c_void_p()
        self._flag = c.g4_cancel()

    def answers(self, prompts: Iterator[Any], ordered: bool) -> Generator[Answer, None, None]:
        engine = self._engine
        waiting: deque[_Job] = deque()  # of answers that were begun, in the order of their prompts
        options, err, count, has_more = c.g4_batch_options(), c.g4_error(), 0, True
        options.limits.cancel = ctypes.pointer(self._flag)
        with engine._handle as e:
            self._grammars = Grammars(engine)
            try:
                check(lib.g4_batch_open(ctypes.byref(self._pointer), e, ctypes.byref(options), ctypes.byref(err)), err)
                while has_more or waiting:
                    new: list[tuple[_Job, Any]] = []
                    while has_more and len(self._jobs) < self._parallel:
                        try:
                            prompt = next(prompts)
                        except StopIteration:
                            has_more = False
                            break
                        new.append((_Job(count), prompt))
                        self._jobs.add(new[-1][0])
                        count += 1
                    waiting.extend(job for job, _ in new)
                    self._call(lambda: self._go_on(new))
                    yield from self._finished(waiting, ordered)
            finally:
                self._close()

    def _call(self, function: Callable[[], None]) -> None:
        """Where Ctrl-C cannot reach the engine's callbacks, and ends it all."""
        try:
            interruptible(function, lambda: lib.g4_cancel_set(ctypes.byref(self._flag)))
        finally:
            lib.g4_cancel_clear(ctypes.byref(self._flag))

    def _go_on(self, new: list[tuple[_Job, Any]]) -> None:
        """Begin those, and answer until something is over."""
        err = c.g4_error()
        for job, prompt in new:
            try:
                self._add(job, prompt)
            except Exception as e:
                job.error = e
                self._over.append(job)
        while not self._over and self._jobs:
            check(lib.g4_batch_step(self._pointer, ctypes.byref(err)), err)
        self._leave()

    def _finished(self, waiting: deque[_Job], ordered: bool) -> Iterator[Answer]:
        for job in list(waiting):
            if job.is_over:
                waiting.remove(job)
                yield self._result(job)
            elif ordered:
                break

    def _result(self, job: _Job) -> Answer:
        if job.answer is not None:
            return job.answer
        assert job.error is not None
        if not self._gives_errors:
            raise job.error
        return Answer(finish_reason="error", stop_reason="error", index=job.index, error=job.error)

    def _leave(self) -> None:
        """The sessions of those that are over serve the next ones."""
        over, self._over = self._over, []
        for job in over:
            if job.request is not None:
                job.request.close()
            self._jobs.discard(job)
            if job.session is not None:
                self._idle.append(job.session)

    # ---- One prompt ------------------------------------------------------------------------------------------------

    def _add(self, job: _Job, prompt: Any) -> None:
        messages = conversation_of(self._system, prompt, lambda m: self._engine._load_media(m, self._flag))
        request, tools = request_of(messages, self._options)
        think = self._options["think"]
        budget = think if isinstance(think, int) and not isinstance(think, bool) else 0
        job.request = r = Request(self._engine, request, self._grammars, self._options["grammar"], budget,
                                  self._flag)
        if r.info.want_logprobs:
            job.tokens = Tokens()
            r.generate.output = job.tokens.callback
        err = c.g4_error()

        def done(user: Any, session: Any, status: int, response: Any, result: Any, error: Any) -> None:
            try:
                if status != c.G4_OK:
                    job.error = error_of(status, error.contents.message)
                    return
                found = result.contents
                n_prompt = lib.g4_session_n(session) - found.n_tokens
                usage = Usage(n_prompt, found.n_reused, found.n_tokens, 0, 0.0, found.seconds)
                answer = answer_of(response, found, usage, tools, f"{job.index}_{len(messages)}")
                answer.index, answer.schema = job.index, self._options["schema"]
                answer.image_size = last_image_size(messages)
                answer.logprobs = job.tokens.logprobs if job.tokens is not None else None
                job.answer = answer
            except Exception as e:
                job.error = e
            finally:
                self._over.append(job)
                lib.g4_response_close(response)

        ask = c.g4_batch_respond_request()
        ask.respond = ctypes.pointer(r.respond)
        ask.done = c.g4_batch_respond_request_done(done)
        job.keep = (ask, done)
        session = job.session = self._idle.pop() if self._idle else self._new_session(job, r)
        with session._handle as pointer:
            check(lib.g4_batch_respond(self._pointer, pointer, r.chat, ctypes.byref(ask), ctypes.byref(err)), err)

    def _new_session(self, job: _Job, request: Request) -> Session:
        """What another prompt begins with too, a system prompt above all, is read once: this one begins in a fork of its
        session."""
        session = None
        if self._parallel > 1:
            job.ids = self._ids(request)
            shared = {other: len(os.path.commonprefix((job.ids, other.ids))) for other in self._jobs if other.session}
            best = max(shared, key=shared.__getitem__, default=None)
            if best is not None and shared[best] >= _MIN_SHARED:
                session = self._fork(best, shared[best] // _ID)
        return session if session is not None else self._engine.session(**self._session)

    def _ids(self, request: Request) -> bytes:
        """Those before the first picture or sound."""
        prompt, err = c.g4_prompt(), c.g4_error()
        check(lib.g4_chat_beginning(request.chat, ctypes.byref(prompt), ctypes.byref(err)), err)
        return ctypes.string_at(prompt.tokens, _ID * prompt.n)

    def _fork(self, job: _Job, n: int) -> Session | None:
        """Of its session, once that has read the first n tokens; None: it is over, or answers already."""
        out, err = ctypes.c_void_p(), c.g4_error()
        assert job.session is not None
        with job.session._handle as pointer:
            if not job.is_over:
                check(lib.g4_batch_mark(self._pointer, pointer, n, ctypes.byref(err)), err)
            while not job.is_over and lib.g4_session_n(pointer) < n:
                check(lib.g4_batch_step(self._pointer, ctypes.byref(err)), err)
            if job.is_over:
                return None
            check(lib.g4_batch_fork(self._pointer, ctypes.byref(out), pointer, n, ctypes.byref(err)), err)
        return Session(self._engine, **self._session, _pointer=out)

    def _close(self) -> None:
        """What is left is cancelled; each session leaves the batch then."""
        lib.g4_batch_close(self._pointer)
        for job in self._jobs:
            if job.request is not None:
                job.request.close()
            if job.session is not None:
                job.session.close()
        for session in self._idle:
            session.close()
        self._grammars.close()
