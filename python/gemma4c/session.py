"""A session: one conversation, or one timeline of tokens, with its keys and values."""

from __future__ import annotations

import asyncio
import ctypes
import queue
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Iterator, NamedTuple, Sequence, TypeVar

from . import _convert, _mirror as c
from ._calls import Work, interruptible
from ._handle import Closable, Handle
from ._library import bytes_at, lib, text_at
from .answer import Answer, TokenLogprob, Usage, answer_of
from .errors import ArgumentError, Canceled, check
from .request import Grammars, Messages, Request, chat_only, conversation_of, last_image_size, request_of
from .tools import Tool

if TYPE_CHECKING:
    import numpy

    from .engine import Engine

__all__ = ["AsyncStream", "Piece", "Session", "Stream"]

T = TypeVar("T")
_KV = {"default": c.G4_KV_DEFAULT, "f16": c.G4_KV_USE_F16, "f32": c.G4_KV_USE_F32, "q8_0": c.G4_KV_USE_Q8_0}


class Piece(NamedTuple):
    """A piece of an answer as it comes. kind: "text", "thought" or "call"; of a call the text is its arguments."""

    kind: str
    text: str
    name: str = ""


_PIECES = {c.G4_PART_TEXT: "text", c.G4_PART_THOUGHT: "thought", c.G4_PART_TOOL_CALL: "call"}


def session_options(context: Any, kv: Any, chunk: Any, snapshot_bytes: Any) -> c.g4_session_options:
    out = c.g4_session_options()
    out.n_ctx = _convert.integer("context", context)
    if not isinstance(kv, str):
        raise _convert.type_error("kv", "the name of a type", kv)
    if kv not in _KV:
        raise ValueError(f"kv: expected {', '.join(_KV)}, found {kv[:40]!r}")
    out.kv = _KV[kv]
    out.chunk = _convert.integer("chunk", chunk)
    out.snapshot_bytes = _convert.integer("snapshot_bytes", snapshot_bytes, 0, 2**62)
    return out


class Tokens:
    """Takes the tokens of an answer with their log-probabilities, as the engine tells them."""

    def __init__(self) -> None:
        self.logprobs: list[TokenLogprob] = []
        self.callback = c.g4_output_fn(self._take)

    def _take(self, user: Any, output: Any) -> int:
        o = output.contents
        if o.token >= 0:  # else it is text that was held back
            top = [(t.token, t.logprob) for t in o.top[: o.n_top]] if o.n_top else []
            self.logprobs.append(TokenLogprob(o.token, o.logprob, top))
        return 0


class Session(Closable):
    """One conversation with the model. Made by `engine.session()`.

    `messages` is the conversation in OpenAI's form. It is yours to read and to change: each `respond` evaluates what
    differs from what the session holds, and nothing else, so `del session.messages[-2:]` goes back a turn.

    One thread at a time uses a session: a second one waits, and a call from within a call is an ArgumentError.

    >>> from gemma4c import Engine
    >>> with Engine() as engine, engine.session() as session:
    ...     print(session.respond("What is the opposite of hot?", temperature=0))
    ...     print(session.respond("My name is Ada.", temperature=0).finish_reason)
    ...     print(len(session.messages))
    The opposite of hot is cold.
    stop
    4
    """

    def __init__(self, engine: Engine, *, system: str | None = None, context: int = 0, kv: str = "default",
                 chunk: int = 0, snapshot_bytes: int = 0, _pointer: Any = None):
        """system: instructions; context: positions at most (0: 8192, or what the model has); kv: "f16", "f32" or "q8_0",
        how keys and values are kept; chunk: prompt tokens evaluated together; snapshot_bytes: what may be kept to go back
        cheaply."""
        if not hasattr(engine, "_sessions"):
            raise _convert.type_error("engine", "an Engine", engine)
        self.engine = engine
        self.messages: Messages = []
        if system is not None:
            _convert.text("system", system)
            self.messages.append({"role": "system", "content": system})
        self._lock = threading.Lock()
        self._in_call: set[int] = set()  # threads that a call of this session waits for or runs on
        self._busy = threading.RLock()  # held to end a call, or to say that it has ended; also by finalisers
        self._call_now: object = None  # which call has the session
        self._flag = c.g4_cancel()
        options, out, err = session_options(context, kv, chunk, snapshot_bytes), _pointer, c.g4_error()
        self._options = options
        if out is None:
            out = ctypes.c_void_p()
            with engine._handle as e:
                check(lib.g4_session_open(ctypes.byref(out), e, ctypes.byref(options), ctypes.byref(err)), err)
        self._handle = Handle("session", out, lib.g4_session_close, engine._handle)
        self._grammars: Grammars | None = None
        engine._sessions.add(self)

    # ---- Calls -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        self._acquire()
        try:
            yield
        finally:
            self._release()

    def _acquire(self, blocking: bool = True) -> bool:
        with self._handle:  # closed, or another process's: said before anything waits
            pass
        if threading.get_ident() in self._in_call:
            raise ArgumentError("this session is in a call already: finish or close what it streams, or fork it")
        if not self._lock.acquire(blocking):
            return False
        try:
            self._handle.hold()
        except BaseException:
            self._lock.release()
            raise
        self._in_call = {threading.get_ident()}
        self._call_now = object()
        return True

    def _release(self) -> None:
        self._in_call = set()
        with self._busy:
            self._call_now = None
            if self._flag.is_set:  # a cancel that came behind the end of the call must not end the next one
                lib.g4_cancel_clear(ctypes.byref(self._flag))
                lib.g4_session_mark(self._handle._pointer, None)
        self._handle.release()
        self._lock.release()
        if self._handle.closed:
            self._close_grammars()

    def _close_grammars(self) -> None:
        if self._grammars is not None and self._lock.acquire(blocking=False):
            self._grammars.close()
            self._grammars = None
            self._lock.release()

    def _run(self, function: Callable[[Any], T], timeout: float | None = None) -> T:
        """function(session's address) of a session that is taken, until `timeout` seconds are over."""
        self._in_call.add(threading.get_ident())
        if timeout is None:
            return function(self._handle._pointer)
        timer = threading.Timer(timeout, self._cancel, (self._call_now,))
        timer.daemon = True
        timer.start()
        try:
            return function(self._handle._pointer)
        finally:
            timer.cancel()

    def cancel(self) -> None:
        """End the call in progress, on whatever thread it is: it raises Canceled within a token. Does nothing else."""
        self._cancel(self._call_now)

    def _cancel(self, call: object) -> None:
        """End this call, if it is still the one in progress."""
        if call is None or self._handle.is_foreign:
            return
        with self._busy:
            if call is self._call_now:
                lib.g4_cancel_set(ctypes.byref(self._flag))
                lib.g4_session_cancel(self._handle._pointer)

    def _call(self, function: Callable[[Any], T], timeout: float | None = None) -> T:
        seconds = _timeout(timeout)
        with self._exclusive():
            return interruptible(lambda: self._run(function, seconds), self.cancel)

    def _run_completion(self, function: Callable[[Any], T]) -> T:
        """function(session's address) of a session that is taken already."""
        return interruptible(lambda: self._run(function), self.cancel)

    # ---- Answers ---------------------------------------------------------------------------------------------------

    def respond(self, prompt: Any, *, tools: Sequence[Any] | None = None, tool_choice: str | None = None,
                schema: Any = None, grammar: str | None = None, think: bool | int | None = None,
                max_tokens: int | None = None, temperature: float | None = None, top_k: int | None = None,
                top_p: float | None = None, min_p: float | None = None, repeat_penalty: float | None = None,
                presence_penalty: float | None = None, frequency_penalty: float | None = None,
                seed: int | None = None, stop: str | list[str] | None = None,
                logit_bias: dict[int, float] | None = None, logprobs: int | None = None,
                timeout: float | None = None) -> Answer:
        """The model's answer. Prompt and answer become part of the conversation; a call that fails leaves it as it was.

        prompt: text; a picture, sound or video (what `load_media` takes); a list of those; results of calls; one message
            or a whole list of messages in OpenAI's form, which replaces the conversation
        tools: functions the model may call: Python functions, or declarations; `answer.calls` has its calls
        tool_choice: "auto", "none", "required", or the name of one that must be called
        schema: the form of the answer: a pydantic class, dataclass, TypedDict, type or JSON Schema; see `answer.parsed`
        grammar: or rules that its text follows, `root ::= "yes" | "no"`
        think: think before the answer; a number: so many tokens at most
        max_tokens ... logit_bias: how to choose tokens; None: as the model file recommends. temperature=0 takes the best
        logprobs: log-probabilities of each token and of so many likeliest ones, at most 20
        timeout: seconds until the call ends with Canceled

        >>> from gemma4c import Engine
        >>> with Engine() as engine, engine.session() as session:
        ...     session.respond("What is the weather in Oslo?", temperature=0, tools=[{"type": "function", "function": {
        ...         "name": "get_weather", "description": "Weather of a city", "parameters": {"type": "object",
        ...         "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]).calls[0].arguments
        {'city': 'Oslo'}
        """
        return self._respond(prompt, locals())

    def _respond(self, prompt: Any, options: dict[str, Any]) -> Answer:
        ask = self._question(prompt, options)
        return self._call(lambda pointer: ask(pointer, None), options["timeout"])

    def _question(self, prompt: Any, options: dict[str, Any]) -> Callable[[Any, Any], Answer]:
        """What answers the prompt when it runs: with the session's address, and what takes pieces or None."""
        with self.engine._handle:
            chat_only(self.engine)
        options["timeout"] = _timeout(options["timeout"])
        if options.get("grammar") is not None:
            _convert.text("grammar", options["grammar"])

        def ask(pointer: Any, on_piece: Any) -> Answer:
            messages = conversation_of(self.messages, prompt, lambda m: self.engine._load_media(m, self._flag))
            request, tools = request_of(messages, options)
            answer = self._answer(pointer, request, tools, options, on_piece)
            answer.image_size = last_image_size(messages)
            answer.schema = options.get("schema")
            self._keep(messages + [answer.message()], answer)
            return answer

        return ask

    def _keep(self, messages: Messages, answer: Answer) -> None:
        """The conversation from now on; of a call that was cancelled it stays as it was, to whoever looks."""
        with self._busy:
            if not self._flag.is_set:
                self.messages = messages
                return
        error = Canceled("cancelled")
        error.answer = answer
        raise error

    def _grammars_here(self) -> Grammars:
        if self._grammars is None:
            self._grammars = Grammars(self.engine)
        self._grammars.trim()
        return self._grammars

    def _answer(self, pointer: Any, request: dict[str, Any], tools: list[Tool], options: dict[str, Any],
                on_piece: Callable[[Piece], None] | None) -> Answer:
        think = options.get("think")
        budget = think if isinstance(think, int) and not isinstance(think, bool) else 0
        with Request(self.engine, request, self._grammars_here(), options.get("grammar"), budget, self._flag) as r:
            counts, err, begun = c.g4_sync_counts(), c.g4_error(), time.monotonic()
            check(lib.g4_session_sync_chat(pointer, r.chat, ctypes.byref(counts), ctypes.byref(err)), err)
            prompt_seconds = time.monotonic() - begun
            tokens = Tokens() if r.info.want_logprobs else None
            if tokens is not None:
                r.generate.output = tokens.callback

            def part(user: Any, index: int, delta: Any) -> int:
                p = delta.contents
                text = text_at(p, "text", p.text_len)
                if on_piece is not None and (text or p.kind == c.G4_PART_TOOL_CALL) and not p.incomplete:
                    on_piece(Piece(_PIECES[p.kind], text, (p.name or b"").decode("utf-8", "replace")))
                return 0

            callback = c.g4_part_fn(part) if on_piece is not None else None
            if callback is not None:
                r.respond.part = callback
            response, result = ctypes.c_void_p(), c.g4_result()
            status = lib.g4_session_respond(pointer, r.chat, ctypes.byref(r.respond), ctypes.byref(response),
                                            ctypes.byref(result), ctypes.byref(err))
            try:
                usage = Usage(counts.prompt, counts.reused, result.n_tokens, 0, prompt_seconds, result.seconds)
                answer = None
                if response.value:
                    answer = answer_of(response, result, usage, tools, str(len(request["messages"])))
                    answer.logprobs = tokens.logprobs if tokens is not None else None
                try:
                    check(status, err)
                except Canceled as e:
                    e.answer = answer
                    raise
                assert answer is not None
                return answer
            finally:
                lib.g4_response_close(response)

    def stream(self, prompt: Any, **options: Any) -> Stream:
        """The same as it comes: an iterator of text, with the options of `respond`. Its `.answer` is the answer once it
        has ended; `.pieces()` gives thoughts and calls too. Closed before its end, it stops the model.

        >>> from gemma4c import Engine
        >>> with Engine() as engine, engine.session() as session:
        ...     stream = session.stream("What is the opposite of hot?", temperature=0)
        ...     print("".join(stream), stream.answer.usage.completion_tokens > 3)
        The opposite of hot is cold. True
        """
        return Stream(self, prompt, _known(options))

    async def respond_async(self, prompt: Any, **options: Any) -> Answer:
        """`respond` for asyncio: a task that is cancelled stops the model."""
        options = _known(options)
        ask = self._question(prompt, options)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        await self._acquire_async()
        try:
            def run() -> Answer:
                try:
                    return self._run(lambda pointer: ask(pointer, None), options["timeout"])
                finally:
                    _tell(loop, lambda: _finish(done))

            work = Work(run)
            try:
                work.start()
                await asyncio.shield(done)
            finally:
                if not done.done():
                    self.cancel()
                work.give_up()
            answer: Answer = work.value()
            return answer
        finally:
            self._release()

    async def _acquire_async(self) -> None:
        while not self._acquire(blocking=False):
            await asyncio.sleep(0.005)

    def stream_async(self, prompt: Any, **options: Any) -> AsyncStream:
        """`stream` for asyncio: `async for text in session.stream_async(...)`."""
        return AsyncStream(self, prompt, _known(options))

    # ---- Text without a template -----------------------------------------------------------------------------------

    def complete(self, prompt: str | bytes, *, grammar: str | None = None, schema: Any = None,
                 max_tokens: int | None = None, temperature: float | None = None, top_k: int | None = None,
                 top_p: float | None = None, min_p: float | None = None, repeat_penalty: float | None = None,
                 presence_penalty: float | None = None, frequency_penalty: float | None = None,
                 seed: int | None = None, stop: str | list[str] | None = None,
                 logit_bias: dict[int, float] | None = None, logprobs: int | None = None,
                 timeout: float | None = None) -> Answer:
        """Go on with a text, without a chat template: what base models do. The timeline becomes the prompt, begin-of-
        sequence token first, and what the model adds; `messages` stay as they are. The options are those of `respond`.

        >>> from gemma4c import Engine
        >>> with Engine() as engine, engine.session() as session:
        ...     session.complete("And God said, Let there be", max_tokens=4, temperature=0).usage.completion_tokens
        4
        """
        options = locals()
        text = _convert.text("prompt", prompt).decode("utf-8", "replace")
        if not text:
            raise ValueError("prompt: is empty: there is nothing to go on from")
        request, _ = request_of([], options)
        del request["messages"]
        request["prompt"] = text
        if "logprobs" in request:
            request["logprobs"] = request.pop("top_logprobs")
        return self._call(lambda pointer: self._complete(pointer, request, options), timeout)

    def _complete(self, pointer: Any, request: dict[str, Any], options: dict[str, Any]) -> Answer:
        grammars = self._grammars_here()
        with Request(self.engine, request, grammars, options["grammar"], 0, self._flag, is_completion=True) as r, \
                self.engine._handle as e:
            ids = self.engine._ids(request["prompt"].encode("utf-8"), bos=True)
            prompt, err, reused, begun = c.g4_prompt(), c.g4_error(), ctypes.c_int(), time.monotonic()
            prompt.tokens, prompt.n = ids, len(ids)
            check(lib.g4_session_sync(pointer, ctypes.byref(prompt), ctypes.byref(reused), ctypes.byref(err)), err)
            prompt_seconds = time.monotonic() - begun
            tokens, guide, pieces = Tokens(), ctypes.c_void_p(), list[bytes]()

            def output(user: Any, out: Any) -> int:
                pieces.append(bytes_at(out.contents, "text", out.contents.text_len))
                return tokens._take(user, out) if r.info.want_logprobs else 0

            callback, result = c.g4_output_fn(output), c.g4_result()
            is_told = r.info.want_logprobs or r.info.n_stop > 0  # else the tokens say it all, and nobody is called
            if is_told:
                r.generate.output = callback
            r.generate.no_guard = 1  # as the program has it: text may repeat itself
            try:
                if r.respond.guide.grammar:
                    check(lib.g4_guide_open_text(ctypes.byref(guide), e, r.respond.guide.grammar, ctypes.byref(err)), err)
                    r.generate.constraint = lib.g4_guide_constraint(guide)
                status = lib.g4_session_generate(pointer, ctypes.byref(r.generate), ctypes.byref(result), ctypes.byref(err))
            finally:
                lib.g4_guide_close(guide)
            if not is_told:
                n = lib.g4_session_n(pointer)
                new = lib.g4_session_tokens(pointer)[n - result.n_tokens:n] if result.n_tokens else []
                pieces = [self.engine.token_bytes(token, skip_special=True) for token in new]
            is_ended = result.stop in (c.G4_STOP_END, c.G4_STOP_STRING, c.G4_STOP_CONSTRAINT)
            answer = Answer(
                text=b"".join(pieces).decode("utf-8", "replace"), finish_reason="stop" if is_ended else "length",
                stop_reason=lib.g4_stop_name(result.stop).decode(), schema=options["schema"],
                usage=Usage(len(ids), reused.value, result.n_tokens, 0, prompt_seconds, result.seconds),
                logprobs=tokens.logprobs if r.info.want_logprobs else None)
            try:
                check(status, err)
            except Canceled as error:
                error.answer = answer
                raise
            return answer

    # ---- The timeline ----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Tokens in the timeline."""
        with self._handle as pointer:
            return int(lib.g4_session_n(pointer))

    def __bool__(self) -> bool:
        return True  # an empty one is one too

    @property
    def context(self) -> int:
        """Positions at most."""
        with self._handle as pointer:
            return int(lib.g4_session_n_ctx(pointer))

    @property
    def tokens(self) -> list[int]:
        """The ids in the timeline; of a picture or sound its placeholders."""
        return self._call(lambda pointer: list(lib.g4_session_tokens(pointer)[: lib.g4_session_n(pointer)]))

    def eval(self, tokens: Any) -> None:
        """Append token ids, or text (begin-of-sequence first where the timeline is empty), and evaluate them."""
        err = c.g4_error()
        if isinstance(tokens, (str, bytes)):
            text = _convert.text("tokens", tokens)
            if not text:
                raise ValueError("tokens: is empty")
            self._call(lambda p: check(lib.g4_session_eval_text(p, text, len(text), ctypes.byref(err)), err))
        else:
            ids = _convert.token_ids("tokens", tokens, self.engine.info.n_vocab)
            self._call(lambda p: check(lib.g4_session_eval(p, ids, len(ids), ctypes.byref(err)), err))

    def logits(self) -> numpy.ndarray[Any, Any]:
        """Of what may come next, (n_vocab,) float32, softcapped, before penalties and temperature."""
        import numpy as np

        def copy(pointer: Any) -> Any:
            row = lib.g4_session_logits(pointer)
            if not row:
                raise ArgumentError("the timeline is empty: there are no logits yet")
            return np.ctypeslib.as_array(row, (self.engine.info.n_vocab,)).copy()

        return self._call(copy)

    def eval_all(self, tokens: Any, row: Callable[[int, Any], None] | None = None) -> Any:
        """Append token ids, evaluate them, and give the logits behind each, (n, n_vocab) float32. With `row`, a function,
        nothing is kept: it is called with the index and the logits (n_vocab,), which it must copy to keep."""
        import numpy as np

        ids, n_vocab, err = _convert.token_ids("tokens", tokens, self.engine.info.n_vocab), self.engine.info.n_vocab, \
            c.g4_error()
        if row is not None and not callable(row):
            raise _convert.type_error("row", "a function", row)
        out = np.empty((len(ids), n_vocab), np.float32) if row is None else None
        raised: list[BaseException] = []

        def take(user: Any, index: int, logits: Any) -> int:
            try:
                values = np.ctypeslib.as_array(logits, (n_vocab,))
                if row is not None:
                    row(index, values)
                elif out is not None:
                    out[index] = values
                return 0
            except BaseException as e:
                raised.append(e)
                return 1

        def run(pointer: Any) -> None:
            prompt = c.g4_prompt()
            prompt.tokens, prompt.n = ids, len(ids)
            status = lib.g4_session_eval_all(pointer, ctypes.byref(prompt), c.g4_logits_row_fn(take), None,
                                             ctypes.byref(err))
            if raised:
                raise raised[0]
            check(status, err)

        self._call(run)
        return out

    def rewind(self, n: int) -> None:
        """Go back to the first n tokens of the timeline (inside a picture or sound: to its start)."""
        n, err = _convert.integer("n", n), c.g4_error()
        self._call(lambda p: check(lib.g4_session_rewind(p, n, ctypes.byref(err)), err))

    def fork(self) -> Session:
        """A second session in the same state. They share memory until they differ."""
        out, err = ctypes.c_void_p(), c.g4_error()
        self._call(lambda p: check(lib.g4_session_fork(ctypes.byref(out), p, ctypes.byref(err)), err))
        return self._like(self.engine, out, self._options, list(self.messages))

    @classmethod
    def _like(cls, engine: Engine, pointer: Any, options: c.g4_session_options, messages: Messages) -> Session:
        session = cls(engine, _pointer=pointer)
        session._options = options
        session.messages = messages
        return session

    def save(self, path: Any) -> None:
        """Write conversation and timeline to a file, to go on later: `engine.load(path)`. The file is complete or not
        there."""
        from .saved import write_session

        write_session(self, path)

    # ---- The end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give the memory back. A call in progress is cancelled, and the rest happens when it has ended."""
        if self._handle.closed:
            return
        self.cancel()
        self._handle.close()
        self._close_grammars()  # or, where a call is in progress, when that has ended

    @property
    def closed(self) -> bool:
        """Was it closed?"""
        return self._handle.closed

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def __repr__(self) -> str:
        if self.closed:
            return "<gemma4c.Session, closed>"
        return f"<gemma4c.Session of {self.engine.info.name}, {len(self)} of {self.context} tokens>"

    def __reduce__(self) -> Any:
        raise TypeError("a session does not pickle: save() it to a file, and load() that with the engine there")


_OPTIONS = [name for name in Session.respond.__annotations__ if name not in ("prompt", "return")]


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """The options of respond, those that were not given as None."""
    for name in options:
        if name not in _OPTIONS:
            raise TypeError(f"unexpected option {name!r}: expected {', '.join(_OPTIONS)}")
    return {name: options.get(name) for name in _OPTIONS}


def _timeout(value: Any) -> float | None:
    return None if value is None else _convert.number("timeout", value, 0, threading.TIMEOUT_MAX)


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # the loop was closed meanwhile: nobody waits any more
        pass


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():  # the task that waited may be cancelled
        done.set_result(None)


class _StreamCore:
    """An answer that is being made on a thread of its own."""

    def __init__(self, session: Session, ask: Callable[[Any, Any], Answer], timeout: float | None,
                 put: Callable[[Any], None]):
        self._session, self._put = session, put
        self._has_ended = False
        self._is_left = threading.Lock()  # taken by whoever reads it, when that leaves
        self._in_call = session._in_call
        is_free = threading.Lock()  # by the first that leaves, reader or thread

        def leave() -> None:
            """The last gives the session free."""
            if not is_free.acquire(blocking=False):
                session._release()

        def run() -> Answer:
            try:
                return session._run(lambda pointer: ask(pointer, put), timeout)
            finally:
                put(None)
                leave()

        self._leave = leave
        self._work = Work(run)
        try:
            self._work.start()
        except BaseException:
            session.cancel()
            self._work.give_up()
            raise

    def end(self) -> None:
        """Stop it if it goes on, and give the session free."""
        if self._session._handle.is_foreign:
            return
        is_first = self._stop()
        self._work.wait()
        if is_first:
            self._leave()
        self._put(None)  # another thread may read too

    def abandon(self) -> None:
        """The same for a finaliser, which waits for nobody: it may run on the thread that answers, or hold what that
        needs. Who calls the session next waits instead."""
        if not self._session._handle.is_foreign and self._stop():
            self._session._in_call = set()
            self._leave()

    def _stop(self) -> bool:
        """Was it the first to do so?"""
        if not self._is_left.acquire(blocking=False):
            return False
        self._has_ended = True
        if not self._work.has_ended:
            self._session.cancel()
        return True

    def check_reader(self) -> None:
        """Whoever reads a stream is in its call."""
        self._session._handle.check_process()
        self._in_call.add(threading.get_ident())

    @property
    def answer(self) -> Answer:
        if not self._has_ended:
            raise ArgumentError("the answer has not ended yet: go on with the stream, or close it")
        answer: Answer = self._work.value()
        return answer


class Stream(Closable, Iterator[str]):
    """Text as it comes; see `Session.stream`."""

    def __init__(self, session: Session, prompt: Any, options: dict[str, Any]):
        ask = session._question(prompt, options)
        self._queue: queue.SimpleQueue[Piece | None] = queue.SimpleQueue()
        session._acquire()
        try:
            self._core = _StreamCore(session, ask, options["timeout"], self._queue.put)
        except BaseException:
            session._release()
            raise

    def _next_piece(self) -> Piece:
        if self._core._has_ended:
            raise StopIteration
        self._core.check_reader()
        try:
            piece = self._queue.get()
        except BaseException:  # KeyboardInterrupt
            self._core.end()
            raise
        if piece is None:
            self._core.end()
            self._core._work.value()  # what went wrong is raised here
            raise StopIteration
        return piece

    def __next__(self) -> str:
        while True:
            piece = self._next_piece()
            if piece.kind == "text":
                return piece.text

    def pieces(self) -> Iterator[Piece]:
        """Thoughts, text and calls, in the order in which they come."""
        while True:
            try:
                yield self._next_piece()
            except StopIteration:
                return

    @property
    def answer(self) -> Answer:
        """The whole answer, once the stream has ended."""
        return self._core.answer

    def close(self) -> None:
        """Stop the model. What it said until then stays in the session's timeline, not in its conversation."""
        self._core.end()

    def __del__(self) -> None:
        if getattr(self, "_core", None) is not None:
            self._core.abandon()


class AsyncStream(AsyncIterator[str]):
    """Text as it comes, for asyncio; see `Session.stream_async`."""

    def __init__(self, session: Session, prompt: Any, options: dict[str, Any]):
        self._session, self._options = session, options
        self._ask = session._question(prompt, options)
        self._core: _StreamCore | None = None
        self._queue: asyncio.Queue[Piece | None] = asyncio.Queue()

    async def _begin(self) -> _StreamCore:
        loop = asyncio.get_running_loop()
        await self._session._acquire_async()
        put = self._queue.put_nowait
        try:
            return _StreamCore(self._session, self._ask, self._options["timeout"],
                               lambda piece: _tell(loop, lambda: put(piece)))
        except BaseException:
            self._session._release()
            raise

    async def __anext__(self) -> str:
        if self._core is None:
            self._core = await self._begin()
        while not self._core._has_ended:
            self._core.check_reader()
            try:
                piece = await self._queue.get()
            except BaseException:  # the task was cancelled
                self._core.end()
                raise
            if piece is None:
                self._core.end()
                self._core._work.value()
            elif piece.kind == "text":
                return piece.text
        raise StopAsyncIteration

    @property
    def answer(self) -> Answer:
        """The whole answer, once the stream has ended."""
        if self._core is None:
            raise ArgumentError("the answer has not begun yet")
        return self._core.answer

    async def aclose(self) -> None:
        """Stop the model."""
        if self._core is not None:
            self._core.end()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        core: _StreamCore | None = getattr(self, "_core", None)
        if core is not None:
            core.abandon()
