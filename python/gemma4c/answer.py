"""What comes back: an answer with its text, thoughts, calls, parsed value, boxes and counts."""

from __future__ import annotations

import ctypes
import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from . import _convert, _mirror as c
from ._library import lib, text_at
from .media import Box, read_boxes
from .schema import value_of
from .tools import Call, Tool

__all__ = ["Answer", "TokenLogprob", "Usage"]


class Usage(NamedTuple):
    """What an answer took. Tokens of the prompt, those of them that were there already, those of the answer, those of
    them that were thoughts; seconds of the prompt and of the answer."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    thought_tokens: int
    prompt_seconds: float
    seconds: float

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class TokenLogprob(NamedTuple):
    """A token of an answer with its natural log-probability, and the likeliest tokens in its place, best first."""

    token: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass
class Answer:
    """An answer. `str(answer)` is its text.

    text: what the model says; thought: what it thought before; calls: the functions it calls; finish_reason: "stop",
    "length" or "tool_calls", and stop_reason the engine's own word ("stop", "stop_string", "context", "repetition",
    ...); usage: counts; logprobs: of each token, where they were asked for; index: its place in a batch; error: why a
    batch has no answer (only with errors="return")."""

    text: str = ""
    thought: str = ""
    calls: list[Call] = field(default_factory=list)
    finish_reason: str = "stop"
    stop_reason: str = "stop"
    usage: Usage = Usage(0, 0, 0, 0, 0.0, 0.0)
    logprobs: list[TokenLogprob] | None = None
    index: int = 0
    error: Exception | None = None
    schema: Any = field(default=None, repr=False)
    image_size: tuple[int, int] = field(default=(0, 0), repr=False)

    def __str__(self) -> str:
        return self.text

    @property
    def parsed(self) -> Any:
        """The text as a value of the schema: an instance of the pydantic class, dataclass, ... that was given; without a
        schema, as json.loads has it. ValueError when the answer was cut off."""
        if self.finish_reason == "length":
            raise ValueError(f"the answer was cut off after {self.usage.completion_tokens} tokens: give it more with "
                             "max_tokens or a larger context")
        return value_of(self.schema if self.schema is not None else {}, self.text)

    @property
    def boxes(self) -> list[Box]:
        """The boxes and points that the text names, in pixels of the last picture of the conversation."""
        width, height = (_convert.integer("image_size", n) for n in self.image_size)
        return read_boxes(self.text, width, height) if width else []

    def message(self) -> dict[str, Any]:
        """The answer as a message in OpenAI's form."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.thought:
            message["reasoning_content"] = self.thought
        if self.calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function",
                 "function": {"name": call.name, "arguments": json.dumps(call.arguments)}} for call in self.calls]
        return message


MAX_DIGITS = 4000  # of an integer: Python converts no longer ones


def _arguments(text: str) -> dict[str, Any]:
    """Of a call, which the engine gives as one JSON object. What a model writes in it has no bounds."""
    def number(digits: str) -> int | float:
        return int(digits) if len(digits) < MAX_DIGITS else float(digits)

    try:
        value = json.loads(text, parse_int=number) if text else {}
    except RecursionError:
        value = text
    return value if isinstance(value, dict) else {"value": value}


def answer_of(response: ctypes.c_void_p, result: c.g4_result, usage: Usage, tools: list[Tool], prefix: str) -> Answer:
    """Of a finished g4_response. Calls that are incomplete are left out: nobody may carry them out. `prefix` makes the
    ids of calls unique in their conversation."""
    n = ctypes.c_int()
    parts = lib.g4_response_parts(response, ctypes.byref(n))
    answer = Answer(usage=usage._replace(thought_tokens=lib.g4_response_thought_tokens(response)))
    functions = {t.name: t.function for t in tools}
    for part in parts[: n.value]:
        text = text_at(part, "text", part.text_len)
        if part.kind == c.G4_PART_TEXT:
            answer.text += text
        elif part.kind == c.G4_PART_THOUGHT:
            answer.thought += text
        elif part.kind == c.G4_PART_TOOL_CALL and not part.incomplete:
            name = (part.name or b"").decode("utf-8", "replace")
            answer.calls.append(Call(f"call_{prefix}_{len(answer.calls)}", name, _arguments(text), functions.get(name)))
    answer.stop_reason = lib.g4_stop_name(result.stop).decode()
    is_ended = result.stop in (c.G4_STOP_END, c.G4_STOP_STRING)
    answer.finish_reason = "tool_calls" if answer.calls and is_ended else "stop" if is_ended else "length"
    return answer
