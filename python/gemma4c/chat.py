"""create_chat_completion, as llama-cpp-python has it: requests and answers in OpenAI's form, read and written by the
engine itself."""

from __future__ import annotations

import ctypes
import json
import os
import time
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping

from . import _convert, _mirror as c
from ._library import lib
from .errors import check
from .request import Request, chat_only, message_of
from .session import Session, _StreamCore

if TYPE_CHECKING:
    from .engine import Engine


def chat_completion(engine: Engine, messages: Any, request: Mapping[str, Any]) -> Any:
    with engine._handle:
        chat_only(engine)
    if not isinstance(messages, (list, tuple)):
        raise _convert.type_error("messages", "a list of messages", messages)
    for i, m in enumerate(messages):
        if not isinstance(m, Mapping):
            raise _convert.type_error(f"messages[{i}]", "a message", m)
    asked = {**request, "messages": [message_of(m, engine.load_media) for m in messages]}
    streams = asked.get("stream", False)
    if streams is not None:
        _convert.flag("stream", streams)
    _convert.document("request", {k: v for k, v in asked.items() if k != "messages"})
    session, is_own = _session_of(engine)
    if streams:
        return _stream(session, is_own, asked)
    try:
        return session._run_completion(lambda pointer: _complete(session, pointer, asked))
    finally:
        _give_back(session, is_own)


def _session_of(engine: Engine) -> tuple[Session, bool]:
    """The engine's own session, taken, which remembers what it evaluated; another where that answers already."""
    if engine._own is None or engine._own.closed:
        engine._own = engine.session()
    if not engine._own._in_call and engine._own._acquire(blocking=False):
        return engine._own, True
    session = engine.session()
    session._acquire()
    return session, False


def _give_back(session: Session, is_own: bool) -> None:
    session._release()
    if not is_own:
        session.close()


class _Answering:
    """A request whose prompt is in the session, and what is known of its answer."""

    def __init__(self, session: Session, pointer: Any, asked: Mapping[str, Any]):
        self.pointer, self.engine = pointer, session.engine
        self.request = Request(session.engine, dict(asked), session._grammars_here(), cancel=session._flag)
        info, counts, err, begun = self.request.info, c.g4_sync_counts(), c.g4_error(), time.monotonic()
        try:
            check(lib.g4_session_sync_chat(pointer, self.request.chat, ctypes.byref(counts), ctypes.byref(err)), err)
        except BaseException:
            self.request.close()
            raise
        self.known = known = c.g4_answer()
        known.id = int.from_bytes(os.urandom(8), "little")
        known.model = info.model or session.engine.info.name.encode()
        known.prompt_tokens, known.cached_tokens = counts.prompt, counts.reused
        known.prompt_seconds = time.monotonic() - begun
        known.engine, known.want_logprobs = self.request._pointer, info.want_logprobs
        known.request = ctypes.pointer(info)
        self.response = ctypes.c_void_p()
        self.logprobs: list[tuple[c.g4_token_logprob, Any]] = []

    def take_token(self, output: Any) -> None:
        """Keep a token's log-probabilities: the engine's own last for the call only."""
        o = output.contents
        if o.token < 0:
            return
        top = (c.g4_candidate * o.n_top)(*o.top[: o.n_top])
        token = c.g4_token_logprob()
        token.token, token.logprob, token.top, token.n_top = o.token, o.logprob, top, o.n_top
        self.logprobs.append((token, top))

    def respond(self) -> None:
        r, result, err = self.request, c.g4_result(), c.g4_error()
        status = lib.g4_session_respond(self.pointer, r.chat, ctypes.byref(r.respond), ctypes.byref(self.response),
                                        ctypes.byref(result), ctypes.byref(err))
        known, n = self.known, ctypes.c_int()
        known.result = result
        if self.response.value:
            known.parts = lib.g4_response_parts(self.response, ctypes.byref(n))
            known.n_parts = n.value
            known.thought_tokens = lib.g4_response_thought_tokens(self.response)
        if self.logprobs:
            known.logprobs = (c.g4_token_logprob * len(self.logprobs))(*(t for t, _ in self.logprobs))
            known.n_logprobs = len(self.logprobs)
        check(status, err)

    def close(self) -> None:
        lib.g4_response_close(self.response)
        self.request.close()


def _complete(session: Session, pointer: Any, asked: Mapping[str, Any]) -> Any:
    answering, pieces, err = _Answering(session, pointer, asked), list[bytes](), c.g4_error()

    def output(user: Any, o: Any) -> int:
        answering.take_token(o)
        return 0

    def write(user: Any, data: Any, size: int) -> int:
        pieces.append(ctypes.string_at(data, size))
        return 0

    take, writer = c.g4_output_fn(output), c.g4_write_fn(write)
    try:
        if answering.request.info.want_logprobs:
            answering.request.generate.output = take
        answering.respond()
        check(lib.g4_answer_write(ctypes.byref(answering.known), writer, None, None, ctypes.byref(err)), err)
    finally:
        answering.close()
    return json.loads(b"".join(pieces))


def _stream(session: Session, is_own: bool, asked: Mapping[str, Any]) -> Iterator[Any]:
    """A generator of chunks. What is wrong with the request is raised before there is one."""
    import queue

    chunks: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask(pointer: Any, put: Any) -> Any:
        _write_stream(session, pointer, asked, put)

    try:
        core = _StreamCore(session, ask, None, chunks.put)
    except BaseException:
        _give_back(session, is_own)
        raise
    try:
        first = chunks.get()
    except BaseException:
        _end(core.end, session, is_own)
        raise
    if first is None:
        _end(core.end, session, is_own)
        core.answer  # raises what was wrong
    return _chunks(core, session, is_own, first, chunks)


def _end(leave: Callable[[], None], session: Session, is_own: bool) -> None:
    leave()
    if not is_own:
        session.close()


class _chunks(Iterator[Any]):
    def __init__(self, core: _StreamCore, session: Session, is_own: bool, first: Any, chunks: Any):
        self._core, self._session, self._is_own, self._first, self._chunks = core, session, is_own, first, chunks

    def __next__(self) -> Any:
        chunk, self._first = self._first, None
        if chunk is None and self._core._has_ended:
            raise StopIteration
        self._core.check_reader()
        try:
            chunk = self._chunks.get() if chunk is None else chunk
        except BaseException:
            self.close()
            raise
        if chunk is None:
            self.close()
            self._core._work.value()
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Stop the model."""
        _end(self._core.end, self._session, self._is_own)

    def __del__(self) -> None:
        _end(self._core.abandon, self._session, self._is_own)


def _write_stream(session: Session, pointer: Any, asked: Mapping[str, Any], put: Any) -> None:
    answering, err, stream = _Answering(session, pointer, asked), c.g4_error(), ctypes.c_void_p()
    options = c.g4_stream_options()
    options.answer = ctypes.pointer(answering.known)
    options.include_usage = answering.request.info.include_usage

    def write(user: Any, data: Any, size: int) -> int:
        for event in ctypes.string_at(data, size).split(b"\n\n"):
            if event.startswith(b"data: ") and event != b"data: [DONE]":
                put(json.loads(event[6:]))
        return 0

    def part(user: Any, index: int, delta: Any) -> int:
        return int(lib.g4_stream_part(stream, index, delta))

    def output(user: Any, o: Any) -> int:
        return int(lib.g4_stream_token(stream, o))

    options.write = writer = c.g4_write_fn(write)
    try:
        check(lib.g4_stream_open(ctypes.byref(stream), ctypes.byref(options), None, ctypes.byref(err)), err)
        respond, on_part, on_output = answering.request.respond, c.g4_part_fn(part), c.g4_output_fn(output)
        respond.part, respond.call_deltas = on_part, 1
        if answering.request.info.want_logprobs:
            answering.request.generate.output = on_output
        answering.respond()
        check(lib.g4_stream_end(stream, ctypes.byref(answering.known), ctypes.byref(err)), err)
    finally:
        lib.g4_stream_close(stream)
        answering.close()
        del writer
