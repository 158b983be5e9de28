"""A question on its way to the model: what Python was given becomes a request in OpenAI's form, which the engine reads
and checks, and that a conversation, a guide and options. Sessions, batches and create_chat_completion share it."""

from __future__ import annotations

import ctypes
import secrets
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping

from . import _convert, _mirror as c
from ._library import lib
from .errors import ArgumentError, check
from .media import Media
from .schema import schema_of
from .tools import Tool, ToolResult, tool_of

if TYPE_CHECKING:
    from .engine import Engine

# A place that stands for a medium of this process; nobody outside can guess one.
_PLACE = f"gemma4c-{secrets.token_hex(8)}:"
_KEYS = {"image": "image_url", "audio": "audio_url", "video": "video_url"}
Messages = list[dict[str, Any]]
Load = Callable[[Any], Media]  # what decodes a medium


# ---- Messages ------------------------------------------------------------------------------------------------------


def is_messages(prompt: Any) -> bool:
    """A whole conversation, as create_chat_completion takes it?"""
    return isinstance(prompt, (list, tuple)) and len(prompt) > 0 and \
        all(isinstance(m, Mapping) and "role" in m for m in prompt)


def is_medium(part: Any) -> bool:
    return not isinstance(part, (str, Mapping, ToolResult, bool, int, float, type(None)))


def conversation_of(before: Iterable[Any], prompt: Any, load: Load) -> Messages:
    """What a prompt makes of the conversation before it. Both may have media in any form that load() takes."""
    if is_messages(prompt):
        return [message_of(m, load) for m in prompt]
    return [message_of(m, load) for m in before] + messages_of(prompt, load)


def messages_of(prompt: Any, load: Load) -> Messages:
    """The messages that a prompt adds to a conversation: text, a medium, a list of both, one message, or results of
    calls."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if isinstance(prompt, Mapping):
        return [message_of(prompt, load)]
    if isinstance(prompt, ToolResult):
        return [prompt.message()]
    if isinstance(prompt, (list, tuple)):
        if not prompt:
            raise ValueError("prompt: is empty")
        if all(isinstance(p, ToolResult) for p in prompt):
            return [p.message() for p in prompt]
        if any(isinstance(p, Mapping) and "role" in p for p in prompt):
            raise TypeError("prompt: expected a list of messages or a list of parts, found a list of both")
        return [{"role": "user", "content": [_part(p, load) for p in prompt]}]
    return [{"role": "user", "content": [_part(prompt, load)]}]


def message_of(message: Any, load: Load) -> Any:
    """A message whose media are decoded; the rest is the engine's to check."""
    if not isinstance(message, Mapping):
        return message
    out = dict(message)
    content = out.get("content")
    if isinstance(content, (list, tuple)):
        out["content"] = [_part(p, load) for p in content]
    elif is_medium(content):
        out["content"] = [_part(content, load)]
    return out


def _part(part: Any, load: Load) -> Any:
    """A part of a message: text, a part in OpenAI's form, or a medium, which becomes {"type": "image", "image": Media}."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, Mapping):
        for kind in _KEYS:
            if kind in part and is_medium(part[kind]):
                return {"type": kind, kind: load(part[kind])}
        return dict(part)
    if isinstance(part, (bool, int, float, type(None), ToolResult)):
        raise _convert.type_error("prompt", "text, a picture, a sound, a video, or messages", part)
    medium = load(part)
    return {"type": medium.kind, medium.kind: medium}


def _placed(messages: Any, media: list[Media]) -> Any:
    """The messages with a place for each medium, which are collected."""
    if not isinstance(messages, list):
        return messages
    out = []
    for m in _joined_results(messages):
        content = m.get("content") if isinstance(m, dict) else None
        if isinstance(content, list):
            m = {**m, "content": [_placed_part(p, media) for p in content]}
        out.append(m)
    return out


def _joined_results(messages: list[Any]) -> list[Any]:
    """Results that are dicts stand where the chat template has them, in `tool_responses` of the message that calls; a
    message of role tool is text."""
    out: list[Any] = []
    for m in messages:
        is_result = isinstance(m, dict) and m.get("role") == "tool"
        asked = out[-1] if out and isinstance(out[-1], dict) else {}
        if is_result and asked.get("tool_calls") and (isinstance(m.get("content"), dict) or "tool_responses" in asked):
            told = [*asked.get("tool_responses", []), {"name": m.get("name"), "response": m.get("content")}]
            out[-1] = {**asked, "tool_responses": told}
        else:
            out.append(m)
    return out


def _placed_part(part: Any, media: list[Media]) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    medium = part.get(kind) if isinstance(kind, str) else None
    if not isinstance(medium, Media):
        return part
    media.append(medium)
    return {"type": _KEYS[medium.kind], _KEYS[medium.kind]: {"url": f"{_PLACE}{len(media) - 1}"}}


def last_image_size(messages: Messages) -> tuple[int, int]:
    """Of the picture that boxes of an answer are in."""
    for m in reversed(messages):
        content = m.get("content")
        for part in reversed(content) if isinstance(content, list) else []:
            medium = part.get("image") if isinstance(part, dict) else None
            if isinstance(medium, Media):
                return medium.size
    return (0, 0)


# ---- Options -------------------------------------------------------------------------------------------------------

# Options that are called as OpenAI's requests call them; the engine checks their types and ranges.
SAMPLING = ("max_tokens", "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "presence_penalty",
            "frequency_penalty", "seed", "stop", "logit_bias")


def request_of(messages: Messages, options: Mapping[str, Any]) -> tuple[dict[str, Any], list[Tool]]:
    """The request of `respond` and its like, and the tools in it. Options that are None are left out."""
    request: dict[str, Any] = {"messages": messages}
    for name in SAMPLING:
        if options.get(name) is not None:
            request[name] = options[name]
    tools = tools_of(options.get("tools"))
    if tools:
        request["tools"] = [t.declaration for t in tools]
    choice = options.get("tool_choice")
    if choice is not None:
        named = any(t.name == choice for t in tools) and choice not in ("auto", "none", "required")
        request["tool_choice"] = {"type": "function", "function": {"name": choice}} if named else choice
    schema = options.get("schema")
    if schema is not None:
        described = {"name": "answer", "schema": schema_of(schema), "strict": not isinstance(schema, dict)}
        request["response_format"] = {"type": "json_schema", "json_schema": described}
    think = options.get("think")
    if think is not None:
        request["enable_thinking"] = bool(think) if isinstance(think, bool) else _convert.integer("think", think) > 0
    if options.get("logprobs") is not None:
        request["logprobs"] = True
        request["top_logprobs"] = _convert.integer("logprobs", options["logprobs"], 0, 20)
    return request, tools


def tools_of(tools: Any) -> list[Tool]:
    if tools is None:
        return []
    if isinstance(tools, (str, bytes, Mapping)) or not hasattr(tools, "__iter__"):
        raise _convert.type_error("tools", "a list of functions", tools)
    return [tool_of(t) for t in tools]


# ---- Grammars ------------------------------------------------------------------------------------------------------


class Grammars:
    """Grammars that were made, for whoever uses one thread at a time: making one may take longer than an answer."""

    MAX_KEPT = 16

    def __init__(self, engine: Engine):
        self._engine = engine
        self._kept: dict[tuple[Any, ...], Any] = {}
        self._engine_pointer = engine._handle.hold()

    def get(self, key: tuple[Any, ...], limits: c.g4_limits) -> Any:
        """key: ("schema", text, closed), ("tools", text, only) or ("rules", text); limits: of making it."""
        if key not in self._kept:
            self._kept[key] = self._make(key, limits)
        self._kept[key] = self._kept.pop(key)  # the latest stands last
        return self._kept[key]

    def _make(self, key: tuple[Any, ...], limits: c.g4_limits) -> Any:
        out, err, options = ctypes.c_void_p(), c.g4_error(), c.g4_schema_options()
        options.limits = ctypes.pointer(limits)
        text, e, tail = key[1], self._engine_pointer, (ctypes.byref(options), ctypes.byref(err))
        if key[0] == "schema":
            options.closed = key[2]
            status = lib.g4_grammar_from_schema(ctypes.byref(out), e, text, len(text), *tail)
        elif key[0] == "tools":
            status = lib.g4_grammar_from_tools(ctypes.byref(out), e, text, len(text), key[2], *tail)
        else:
            status = lib.g4_grammar_from_rules(ctypes.byref(out), e, text, len(text), options.limits, ctypes.byref(err))
        check(status, err)
        return out

    def trim(self) -> None:
        """Between answers: forget the oldest."""
        while len(self._kept) > self.MAX_KEPT:
            lib.g4_grammar_close(self._kept.pop(next(iter(self._kept))))

    def close(self) -> None:
        while self._kept:  # each is taken out first: an interrupt must not close one twice
            lib.g4_grammar_close(self._kept.popitem()[1])
        if self._engine_pointer is not None:
            self._engine_pointer = None
            self._engine._handle.release()


# ---- The request ---------------------------------------------------------------------------------------------------


class Request:
    """What the engine reads of a request: `info` (g4_request_info), `chat` (g4_chat), and `respond`, the options of its
    answer. All that they point to lives until close()."""

    def __init__(self, engine: Engine, request: dict[str, Any], grammars: Grammars, rules: Any = None,
                 think_budget: int = 0, cancel: c.g4_cancel | None = None, is_completion: bool = False):
        self._engine, self._pointer = engine, engine._handle.hold()
        self.request, self.chat = ctypes.c_void_p(), ctypes.c_void_p()
        self.media: list[Media] = []
        self._keep: list[Any] = [cancel]
        try:
            self._limits = c.g4_limits()
            if cancel is not None:
                self._limits.cancel = ctypes.pointer(cancel)
            self._read(request, c.G4_DIALECT_COMPLETIONS if is_completion else c.G4_DIALECT_OPENAI)
            if not is_completion:
                self._open_chat()
                self._load_media()
            self._set_options(grammars, rules, think_budget)
        except BaseException:
            self.close()
            raise

    def _read(self, request: dict[str, Any], dialect: int) -> None:
        if "messages" in request:
            request = {**request, "messages": _placed(request["messages"], self.media)}
        text, fault, err = _convert.document("request", request), c.g4_fault(), c.g4_error()
        check(lib.g4_request_read_as(ctypes.byref(self.request), dialect, text, len(text), None, ctypes.byref(fault),
                                     ctypes.byref(err)), err, fault)
        self.info: c.g4_request_info = lib.g4_request_get(self.request).contents

    def _open_chat(self) -> None:
        options, fault, err = c.g4_chat_options(), c.g4_fault(), c.g4_error()
        options.limits = self._limits
        check(lib.g4_request_chat(ctypes.byref(self.chat), self._pointer, self.request, ctypes.byref(options),
                                  ctypes.byref(fault), ctypes.byref(err)), err, fault)

    def _load_media(self) -> None:
        """Those of Python are set; what stands in the document as data, or below the engine's media_root, is loaded."""
        err, medium = c.g4_error(), c.g4_chat_medium()
        setters = {"image": lib.g4_chat_set_image, "audio": lib.g4_chat_set_audio, "video": lib.g4_chat_set_video}
        n = lib.g4_chat_n_media(self.chat)
        if n == 0:
            return
        for i in range(n):
            check(lib.g4_chat_media(self.chat, i, ctypes.byref(medium), ctypes.byref(err)), err)
            place = (medium.source or b"").decode("utf-8", "replace")
            if place.startswith(_PLACE):
                mine = self.media[int(place[len(_PLACE):])]
                check(setters[mine.kind](self.chat, i, ctypes.byref(mine.struct), ctypes.byref(err)), err)
        options = self._engine._media_options()
        options.limits = self._limits
        load = c.g4_chat_load_options()
        load.media = ctypes.pointer(options)
        if self._engine.media_root is not None:
            load.root = _convert.path("media_root", self._engine.media_root)
        check(lib.g4_chat_load_media(self.chat, ctypes.byref(load), ctypes.byref(err)), err)

    def _set_options(self, grammars: Grammars, rules: Any, think_budget: int) -> None:
        info = self.info
        sampling = c.g4_sampling()
        lib.g4_sampling_recommended(self._pointer, ctypes.byref(sampling))
        lib.g4_request_sampling(self.request, ctypes.byref(sampling))
        self.generate = c.g4_generate_options()
        self.generate.sampling = ctypes.pointer(sampling)
        self.generate.max_tokens = info.max_tokens
        self.generate.stop, self.generate.n_stop = info.stop, info.n_stop
        self.generate.want_logprobs, self.generate.n_top = info.want_logprobs, info.n_top
        self.respond = c.g4_respond_options()
        self.respond.generate = ctypes.pointer(self.generate)
        guide = self.respond.guide
        guide.tool_choice, guide.tool_name = info.tool_choice, info.tool_name
        guide.think_budget = think_budget or info.think_budget
        if rules is not None and info.schema:
            raise ValueError("grammar: expected a grammar or a schema, found both")
        if rules is not None:
            guide.grammar = grammars.get(("rules", _convert.text("grammar", rules)), self._limits)
        elif info.schema:
            guide.grammar = grammars.get(("schema", info.schema[: info.schema_len], info.is_strict), self._limits)
        if info.callable and info.callable_len and info.tool_choice != c.G4_TOOLS_NONE:
            only = info.tool_name if info.tool_choice == c.G4_TOOLS_NAMED else None
            guide.tools = grammars.get(("tools", info.callable[: info.callable_len], only), self._limits)
        self._keep += [sampling]

    def __enter__(self) -> Request:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        pointer, self._pointer = self._pointer, None  # first: an interrupt must not close it twice
        if pointer is None:
            return
        lib.g4_chat_close(self.chat)
        lib.g4_request_close(self.request)
        self._engine._handle.release()


def chat_only(engine: Engine) -> None:
    """Refuse in words what a base model cannot do."""
    if not engine.info.is_chat:
        raise ArgumentError(f"{engine.info.name} is a base model without a chat template: complete() continues text")
