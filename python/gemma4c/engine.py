"""The engine: a model file, opened. Weights are mapped, read-only, and shared by all sessions."""

from __future__ import annotations

import atexit
import ctypes
import os
import weakref
from typing import TYPE_CHECKING, Any, Callable, Generator, Iterable

from . import _convert, _mirror as c
from ._calls import interruptible, wait_for_all
from ._handle import Closable, Handle
from ._library import beside, lib
from .errors import ArgumentError, check
from .media import Media, MediaOptions, c_options, load_until
from .session import Session

if TYPE_CHECKING:
    import numpy

    from .answer import Answer

__all__ = ["Engine", "EngineInfo", "isas"]


class EngineInfo:
    """What a model file says of itself, and how it is run here: the fields of g4_engine_info in gemma4.h, such as
    `name`, `n_layers`, `n_vocab`, `max_ctx`, `has_image`, `has_audio`, `is_chat`, `isa` and `n_threads`."""

    name: str
    isa: str
    n_layers: int
    hidden: int
    n_vocab: int
    n_threads: int
    max_ctx: int
    is_chat: bool
    has_image: bool
    has_audio: bool
    n_params: int
    file_bytes: int
    lookup_bytes: int
    decode_bytes: int
    decode_products: int
    prompt_products: int
    bos: int
    eos: int
    pad: int
    n_heads: int
    window: int
    ple_dim: int
    n_experts: int
    n_experts_used: int
    expert_dim: int
    has_own_head: bool
    softcap: float
    vision_layers: int
    vision_hidden: int
    vision_tokens: int
    audio_layers: int
    audio_hidden: int
    source: str
    source_sha256: str
    vision_side: int

    def __init__(self, info: c.g4_engine_info):
        for name, *_ in c.g4_engine_info._fields_:
            value = getattr(info, name)
            if isinstance(value, bytes):
                value = value.decode("utf-8", "replace")
            elif name.startswith(("is_", "has_")):
                value = bool(value)
            if name != "reserved":
                setattr(self, name, value)

    def __repr__(self) -> str:
        return "EngineInfo(" + ", ".join(f"{k}={v!r}" for k, v in vars(self).items()) + ")"


def isas() -> list[str]:
    """The kernel tables that this CPU can run, best first."""
    names: list[str] = []
    while (name := lib.g4_isa_name(len(names))) is not None:
        names.append(name.decode())
    return names


_open_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine(Closable):
    """A model, opened.

    path: a model file (.g4, made by export.py); None: the tiny model that comes with the package
    threads: 0 takes the physical cores that the process may use
    isa: the name of a kernel table, one of `isas()`; None: the best here
    lock_memory, huge_pages, mmap: how the weights are held; see g4_engine_options in gemma4.h
    static_activations: for a checkpoint in the mobile format, as its reference rounds
    log: called with a level ("warning", "info", "debug") and a line
    media: how files of pictures, sound and video are decoded
    media_root: messages may name files below this folder; None: media of messages in OpenAI's form are data: URLs

    An engine serves any number of sessions on any number of threads. It pickles as its path and options, so that another
    process opens it again; after a fork it says that it is its parent's.

    >>> with Engine() as engine:
    ...     print(engine.info.name, engine.count_tokens("hello there"))
    ...     print(engine.session().respond("What is 39 - 1?", temperature=0))
    Tiny Gemma 4 3
    38
    """

    def __init__(self, path: Any = None, *, threads: int = 0, isa: str | None = None, lock_memory: bool = False,
                 huge_pages: bool = False, mmap: bool = True, static_activations: bool = False,
                 log: Callable[[str, str], object] | None = None, media: MediaOptions = MediaOptions(),
                 media_root: Any = None):
        given = path  # None stays that when it is pickled: another machine has the model elsewhere
        if path is None:
            path = beside("tiny.g4")
            if path is None:
                raise ArgumentError("there is no model: give the path of a .g4 file")
        self.path = path
        if not isinstance(media, MediaOptions):
            raise _convert.type_error("media", "MediaOptions", media)
        c_options(media)
        self.media, self.media_root = media, media_root
        if media_root is not None:
            _convert.path("media_root", media_root)
        if log is not None and not callable(log):
            raise _convert.type_error("log", "a function", log)
        self._flag = c.g4_cancel()
        self._log = c.g4_log_fn(_log_of(log)) if log is not None else c.g4_log_fn()
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._own: Session | None = None  # of create_chat_completion
        options = c.g4_engine_options()
        options.model_path = _convert.path("path", path)
        options.n_threads = _convert.integer("threads", threads, 0, 4096)
        options.isa = _convert.word("isa", isa) if isa is not None else None
        options.lock_memory = _convert.flag("lock_memory", lock_memory)
        options.huge_pages = _convert.flag("huge_pages", huge_pages)
        options.no_mmap = not _convert.flag("mmap", mmap)
        options.static_activations = _convert.flag("static_activations", static_activations)
        options.log = self._log
        options.limits.cancel = ctypes.pointer(self._flag)
        out, err = ctypes.c_void_p(), c.g4_error()
        self._call(lambda: check(lib.g4_engine_open(ctypes.byref(out), ctypes.byref(options), ctypes.byref(err)), err))
        self._handle = Handle("engine", out, _closer(self._flag, self._log))
        info = c.g4_engine_info()
        lib.g4_engine_get_info(out, ctypes.byref(info))
        self.info = EngineInfo(info)
        self._arguments = dict(path=_absolute(given), threads=threads, isa=isa, lock_memory=lock_memory,
                               huge_pages=huge_pages, mmap=mmap, static_activations=static_activations, log=log,
                               media=media, media_root=_absolute(media_root))
        _open_engines.add(self)

    def _call(self, function: Callable[[], Any]) -> Any:
        try:
            return interruptible(function, lambda: lib.g4_cancel_set(ctypes.byref(self._flag)))
        finally:
            lib.g4_cancel_clear(ctypes.byref(self._flag))

    def _media_options(self, flag: c.g4_cancel | None = None) -> c.g4_media_options:
        want_sound = self.media.want_sound and bool(self.info.has_audio)
        return c_options(self.media._replace(want_sound=want_sound), flag)

    # ---- Sessions --------------------------------------------------------------------------------------------------

    def session(self, *, system: str | None = None, context: int = 0, kv: str = "default", chunk: int = 0,
                snapshot_bytes: int = 0) -> Session:
        """A new conversation; see Session."""
        return Session(self, system=system, context=context, kv=kv, chunk=chunk, snapshot_bytes=snapshot_bytes)

    def load(self, path: Any) -> Session:
        """A session that `save` has written, with its conversation."""
        from .saved import read_session

        return read_session(self, path)

    def batch(self, prompts: Iterable[Any], *, parallel: int = 8, ordered: bool = True, errors: str = "raise",
              system: str | None = None, context: int = 0, kv: str = "default", **options: Any) -> Generator[Answer, None, None]:
        """Answers to many prompts, several at a time in one read of the weights: a generator of answers, each with the
        tokens that it would have alone. Prompts are what `respond` takes, read as places become free; options are
        those of `respond`, for all.

        parallel: how many are answered together; ordered: answers come in the order of the prompts, else as they are
        completed, with `.index`; errors: "raise" ends with the first, "return" gives an Answer with `.error` for each

        >>> with Engine() as engine:
        ...     for answer in engine.batch(["What is the opposite of hot?", "What is 39 - 1?"], temperature=0):
        ...         print(answer.index, answer)
        0 The opposite of hot is cold.
        1 38
        """
        from .batch import run_batch

        return run_batch(self, prompts, parallel, ordered, errors, system, (context, kv, 0, 0), options)

    def create_chat_completion(self, messages: Any, **request: Any) -> Any:
        """An answer in OpenAI's form, as llama-cpp-python has it: a dict, or with stream=True a generator of chunks.
        What else the request may say stands in gemma4.h: tools, tool_choice, response_format, max_tokens, temperature,
        top_p, top_k, min_p, seed, stop, logit_bias, logprobs, top_logprobs, reasoning_effort, ...

        Conversations that begin alike reuse what was evaluated.

        >>> with Engine() as engine:
        ...     answer = engine.create_chat_completion(
        ...         [{"role": "user", "content": "What is the opposite of hot?"}], temperature=0)
        ...     answer["choices"][0]["message"]["content"]
        'The opposite of hot is cold.'
        """
        from .chat import chat_completion

        return chat_completion(self, messages, request)

    # ---- Tokens ----------------------------------------------------------------------------------------------------

    def _ids(self, text: bytes, specials: bool = False, bos: bool = False) -> Any:
        """The ids of text, as a ctypes array."""
        n, err, first = ctypes.c_size_t(), c.g4_error(), int(bos and self.info.bos >= 0)
        with self._handle as e:
            cap = len(text) + 1  # no token stands for less than a byte, but for what normalising adds
            while True:
                ids = (ctypes.c_int32 * (first + cap))()
                room = ctypes.cast(ctypes.byref(ids, 4 * first), ctypes.POINTER(ctypes.c_int32))
                check(lib.g4_tokenize(e, text, len(text), specials, room, cap, ctypes.byref(n), ctypes.byref(err)), err)
                if n.value <= cap:
                    break
                cap = n.value
        if first:
            ids[0] = self.info.bos
        return (ctypes.c_int32 * (first + n.value)).from_buffer(ids)

    def tokenize(self, text: str | bytes, *, specials: bool = False, bos: bool = False) -> numpy.ndarray[Any, Any]:
        """Token ids of text, (n,) int32. specials: markers such as <|turn> become control tokens (trusted text only);
        bos: the begin-of-sequence token in front.

        >>> with Engine() as engine:
        ...     engine.detokenize(engine.tokenize("hello there"))
        'hello there'
        """
        import numpy as np

        ids = self._ids(_convert.text("text", text), bool(_convert.flag("specials", specials)),
                        bool(_convert.flag("bos", bos)))
        return np.array(ids, dtype=np.int32)

    def count_tokens(self, text: str | bytes) -> int:
        """How many tokens a text has; needs no numpy."""
        return len(self._ids(_convert.text("text", text)))

    def token_bytes(self, token: int, *, skip_special: bool = False) -> bytes:
        """The bytes of one token; a control token gives its name, or nothing with skip_special."""
        token = _convert.integer("token", token, 0, self.info.n_vocab - 1)
        out = ctypes.create_string_buffer(256)
        with self._handle as e:
            n = lib.g4_token_bytes(e, token, _convert.flag("skip_special", skip_special), out)
        return out.raw[:n]

    def detokenize(self, tokens: Any, *, skip_special: bool = False) -> str:
        """Text of token ids; bytes that are no UTF-8 become the replacement character."""
        ids = _convert.token_ids("tokens", tokens, self.info.n_vocab)
        return b"".join(self.token_bytes(t, skip_special=skip_special) for t in ids).decode("utf-8", "replace")

    # ---- Scores ----------------------------------------------------------------------------------------------------

    def logprobs(self, text: str | bytes, *, context: int = 0) -> numpy.ndarray[Any, Any]:
        """Of each token of a text behind the begin-of-sequence token, its natural log-probability, (n,) float32."""
        import numpy as np

        ids = self._ids(_convert.text("text", text), bos=True)
        first = 1 if self.info.bos >= 0 else 0
        return np.array(self.score(ids[:first], ids[first:], context=context)[0], np.float32)

    def score(self, before: Any, tokens: Any, *, context: int = 0, session: Session | None = None) -> Any:
        """How likely `tokens` are behind `before` (token ids both; `before` is not empty): their natural
        log-probabilities, (n,) float32, and whether each was the likeliest."""
        import numpy as np

        if session is not None and not isinstance(session, Session):
            raise _convert.type_error("session", "a Session", session)
        n_vocab = self.info.n_vocab
        first = list(_convert.token_ids("before", before, n_vocab))
        last = list(_convert.token_ids("tokens", tokens, n_vocab))
        if not first:
            raise ValueError("before: expected a token or more, found none: the begin-of-sequence token will do")
        if not last:
            return np.empty(0, np.float32), True
        values, is_best = np.empty(len(last), np.float32), True
        skipped = len(first) - 1

        def row(index: int, logits: Any) -> None:
            nonlocal is_best
            if 0 <= index - skipped < len(last):
                token = last[index - skipped]
                best = logits.max()
                values[index - skipped] = logits[token] - best - np.log(np.exp(logits - best, dtype=np.float64).sum())
                is_best = is_best and int(logits.argmax()) == token

        mine = session or self.session(context=context or len(first) + len(last) + 1)
        try:
            if session is not None:
                session.rewind(0)
            mine.eval_all(first + last[:-1], row)
        finally:
            if session is None:
                mine.close()
        return values, is_best

    def perplexity(self, text: str | bytes, *, context: int = 0) -> float:
        """exp of the mean negative log-probability of a token of the text.

        >>> with Engine() as engine:
        ...     1 < engine.perplexity("In the beginning God created the heaven and the earth.") < 20
        True
        """
        import numpy as np

        values = self.logprobs(text, context=context)
        if values.size == 0:
            raise ValueError("text: is empty")
        return float(np.exp(-values.mean(dtype=np.float64)))

    # ---- Media -----------------------------------------------------------------------------------------------------

    def load_media(self, value: Any) -> Media:
        """A picture, sound or video, decoded as this engine's `media` says; see gemma4c.load_media."""
        return self._load_media(value, c.g4_cancel())

    def _load_media(self, value: Any, flag: c.g4_cancel) -> Media:
        return load_until(value, self._media_options(flag), flag)

    def encode(self, value: Any, *, max_tokens: int = 0) -> numpy.ndarray[Any, Any]:
        """What the tower makes of a picture, a sound, or the frames of a video: its soft tokens, (n, hidden) float32, as
        the decoder reads them. max_tokens: 70, 140, 280, 560 or 1120 of a picture or frame; 0: as the model has it.

        >>> with Engine() as engine:
        ...     engine.encode(b"P6 1 1 255 \\xff\\x00\\x00").shape
        (64, 192)
        """
        import numpy as np

        max_tokens = _convert.integer("max_tokens", max_tokens)
        medium = self.load_media(value)
        if medium.kind == "audio":
            rows = self._encode_sound(medium)
        else:
            frames = [medium.struct] if medium.kind == "image" else medium.struct.frames[: medium.struct.n_frames]
            encode = lib.g4_image_encode if medium.kind == "image" else lib.g4_frame_encode
            rows = []
            for frame in frames:
                image = c.g4_image.from_buffer_copy(frame)
                image.max_tokens = max_tokens or frame.max_tokens
                rows.append(self._rows(encode, image))
        return np.concatenate(rows)

    def _encode_sound(self, medium: Media) -> list[Any]:
        rows, at = [], 0
        while (n := lib.g4_audio_block(ctypes.byref(medium.struct), at)) > 0:
            block = c.g4_audio()
            address = ctypes.cast(medium.struct.samples, ctypes.c_void_p).value or 0
            block.samples = ctypes.cast(address + 4 * at, ctypes.POINTER(ctypes.c_float))
            block.n_samples = n
            rows.append(self._rows(lib.g4_audio_encode, block))
            at += n
        return rows

    def _rows(self, encode: Any, struct: Any) -> Any:
        import numpy as np

        soft, err = ctypes.c_void_p(), c.g4_error()
        with self._handle as e:
            self._call(lambda: check(encode(ctypes.byref(soft), e, ctypes.byref(struct), ctypes.byref(err)), err))
            try:
                shape = (lib.g4_soft_n(soft), self.info.hidden)
                return np.ctypeslib.as_array(lib.g4_soft_rows(soft), shape).copy()
            finally:
                lib.g4_soft_close(e, soft)

    # ---- The end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the engine and its sessions. Calls in progress are cancelled; memory goes when the last has ended."""
        if self._handle.closed:
            return
        for session in list(self._sessions):
            session.close()
        self._handle.close()

    @property
    def closed(self) -> bool:
        """Was it closed?"""
        return self._handle.closed

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self._handle.close()

    def __repr__(self) -> str:
        return f"<gemma4c.Engine {self.info.name}{', closed' if self.closed else ''}>"

    def __reduce__(self) -> Any:
        return _reopen, (type(self), self._arguments)


def _reopen(kind: type[Engine], arguments: dict[str, Any]) -> Engine:
    return kind(**arguments)


def _absolute(path: Any) -> str | None:
    """The same file whatever folder is the current one; None stays that."""
    return None if path is None else os.path.abspath(os.fsdecode(path))


def _closer(flag: c.g4_cancel, log: Any) -> Callable[[Any], None]:
    """What closes an engine, and holds what the engine points to until then."""
    kept = [flag, log]

    def close(pointer: Any) -> None:
        lib.g4_engine_close(pointer)
        kept.clear()

    return close


def _log_of(function: Callable[[str, str], object]) -> Callable[[Any, int, bytes], None]:
    levels = {c.G4_LOG_WARNING: "warning", c.G4_LOG_INFO: "info", c.G4_LOG_DEBUG: "debug"}

    def log(user: Any, level: int, message: bytes) -> None:
        try:
            function(levels.get(level, "debug"), message.decode("utf-8", "replace"))
        except Exception:  # a log that fails must not end what it tells of
            pass

    return log


@atexit.register
def _close_all() -> None:
    """Before the interpreter goes: whatever still runs is stopped, and waited for."""
    for engine in list(_open_engines):
        if not engine._handle.is_foreign:
            engine.close()
    wait_for_all()
