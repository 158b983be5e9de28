"""Python functions as tools: what their signature and docstring say becomes the declaration that the model reads."""

from __future__ import annotations

import functools
import inspect
import json
import re
from dataclasses import dataclass, field
from typing import Any, Callable

from . import _convert
from .schema import Definitions, _hints, _schema, _value

__all__ = ["Call", "Tool", "ToolResult", "tool_of"]


@dataclass(frozen=True)
class Tool:
    """A function that the model may call: its declaration as the chat template takes it, and, unless it was declared by
    a dict alone, what carries a call out."""

    declaration: dict[str, Any]
    function: Callable[..., Any] | None = None

    @property
    def name(self) -> str:
        inner = self.declaration.get("function", self.declaration)
        return str(inner.get("name", "")) if isinstance(inner, dict) else ""


def tool_of(tool: Any) -> Tool:
    """A Tool from a Python function, or from a declaration in OpenAI's form.

    The first paragraph of the docstring describes the function; lines such as `city: name of the city`, below "Args:"
    or as `:param city: name`, describe its parameters.

    >>> from typing import Literal
    >>> def weather(city: str, unit: Literal["C", "F"] = "C") -> dict:
    ...     '''Weather of a city, now.
    ...
    ...     Args:
    ...         city: name of the city
    ...     '''
    >>> tool_of(weather).declaration["function"]["parameters"]["properties"]["city"]
    {'type': 'string', 'description': 'name of the city'}
    """
    if isinstance(tool, Tool):
        return tool
    if isinstance(tool, dict):
        return Tool(tool)
    if not callable(tool) or isinstance(tool, type):
        raise _convert.type_error("tools", "a function or its declaration", tool)
    try:
        signature = inspect.signature(tool)
    except (TypeError, ValueError):
        raise TypeError(f"tools: {getattr(tool, '__name__', 'a function')} has no signature that can be read") from None
    function = _plain_function(tool)
    name = getattr(function, "__name__", None)
    if not isinstance(name, str) or name == "<lambda>":
        raise TypeError("tools: a function needs a name that says what it does: use def")
    description, of_parameters = _read_docstring(inspect.getdoc(function) or "")
    definitions = Definitions()
    properties, required = {}, []
    hints = _hints(function) if inspect.isroutine(function) else {}
    for p in signature.parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        if p.kind == p.POSITIONAL_ONLY:
            raise TypeError(f"tools: {name}: the parameter {p.name} cannot be given by name")
        schema = _schema(hints.get(p.name, Any), definitions, f"{name}.{p.name}")
        if p.name in of_parameters:
            schema["description"] = of_parameters[p.name]
        properties[p.name] = schema
        if p.default is p.empty:
            required.append(p.name)
    parameters: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    if definitions:
        parameters["$defs"] = definitions
    inner = {"name": name, "description": description, "parameters": parameters}
    return Tool({"type": "function", "function": inner}, tool)


def _plain_function(tool: Any) -> Any:
    """What has name, docstring and annotations of a functools.partial."""
    while isinstance(tool, functools.partial):
        tool = tool.func
    return tool


def _read_docstring(doc: str) -> tuple[str, dict[str, str]]:
    """What the function does, and its parameters' descriptions."""
    description = " ".join(doc.split("\n\n")[0].split())
    found = dict(re.findall(r":param\s+(?:[\w\[\], ]+\s+)?(\w+):\s*(.+)", doc))
    below = re.search(r"^\s*(?:Args|Arguments|Parameters):\s*\n((?:[ \t]+.*\n?|\s*\n)+)", doc, flags=re.M)
    if below:
        for name, text in re.findall(r"^\s+(\w+)(?:\s*\([^)]*\))?:\s*(.+)$", below.group(1), flags=re.M):
            found.setdefault(name, text.strip())
    dashed = re.search(r"^Parameters\n-+\n((?:.*\n?)*)", doc, flags=re.M)  # as numpy's are written
    if dashed:
        section = re.split(r"\n\n?\w+\n-+\n", dashed.group(1))[0]
        for name, text in re.findall(r"^(\w+)(?: *:.*)?\n[ \t]+(.+)$", section, flags=re.M):
            found.setdefault(name, text.strip())
    return description, found


@dataclass(frozen=True)
class ToolResult:
    """What a call gave, for the next turn: `session.respond(results)`. `content` is text, or a dict, whose members the
    model reads one by one."""

    id: str
    name: str
    content: str | dict[str, Any]

    def message(self) -> dict[str, Any]:
        """As a message in OpenAI's form."""
        return {"role": "tool", "tool_call_id": self.id, "name": self.name, "content": self.content}


def _failure(e: Exception) -> dict[str, str]:
    return {"error": f"{type(e).__name__}: {e}"}


@dataclass(frozen=True)
class Call:
    """A call that the model made: `name`, `arguments` (a dict), and `id`."""

    id: str
    name: str
    arguments: dict[str, Any]
    function: Callable[..., Any] | None = field(default=None, repr=False, compare=False)

    def run(self) -> ToolResult:
        """Carry it out. Arguments are made what the function's annotations say; what it returns is the result: a dict or
        text as it is, all else as JSON. An exception of the function is the result {"error": ...}: the model reads it and
        can try again."""
        function = self._callable()
        try:
            value = self._begin(function)
        except Exception as e:
            value = _failure(e)
        if inspect.iscoroutine(value):
            value.close()
            raise TypeError(f"{self.name} is an async function: await call.run_async()")
        return self.result(value)

    async def run_async(self) -> ToolResult:
        """`run` for asyncio: of an async function, too."""
        function = self._callable()
        try:
            value = self._begin(function)
            value = await value if inspect.isawaitable(value) else value
        except Exception as e:
            value = _failure(e)
        return self.result(value)

    def _begin(self, function: Callable[..., Any]) -> Any:
        plain = _plain_function(function)
        hints = _hints(plain) if inspect.isroutine(plain) else {}
        given = {k: _value(hints[k], v) if k in hints else v for k, v in self.arguments.items()}
        return function(**given)

    def _callable(self) -> Callable[..., Any]:
        if self.function is None:
            raise TypeError(f"{self.name} was declared without a Python function: carry it out and make a ToolResult")
        return self.function

    def result(self, value: Any) -> ToolResult:
        """The result of a call that was carried out elsewhere."""
        if not isinstance(value, str):
            text = _convert.document("result", value).decode()
            data = json.loads(text)
            value = data if isinstance(data, dict) else text
        return ToolResult(self.id, self.name, value)

