"""Types as JSON Schema, and JSON back into their values: pydantic classes, dataclasses, TypedDicts, enumerations and
the usual annotations; a dict is a schema itself."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import enum
import json
import types
import typing
import uuid
from typing import Any, Callable, Literal, Union, get_args, get_origin, get_type_hints

from . import _convert

__all__ = ["schema_of", "value_of"]

_PLAIN = {str: {"type": "string"}, int: {"type": "integer"}, float: {"type": "number"}, bool: {"type": "boolean"},
          type(None): {"type": "null"}, dict: {"type": "object"}, list: {"type": "array"}, Any: {}, object: {}}
_UNIONS = (Union, getattr(types, "UnionType", Union))
_LISTS = (list, set, frozenset, tuple, collections.abc.Sequence, collections.abc.Iterable)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def _iso(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: read(text.upper().replace("Z", "+00:00"))  # which Python reads since 3.11


# Types that are text of a form in JSON, and what reads that.
_FORMATS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    datetime.datetime: ("date-time", _iso(datetime.datetime.fromisoformat)),
    datetime.date: ("date", datetime.date.fromisoformat),
    datetime.time: ("time", _iso(datetime.time.fromisoformat)),
    uuid.UUID: ("uuid", uuid.UUID),
}


class Definitions(dict[str, Any]):
    """What a schema has as "$defs". Two classes may be called alike."""

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[type, str] = {}

    def name_of(self, t: type) -> tuple[str, bool]:
        """And whether it is a new one."""
        is_new = t not in self._names
        if is_new:
            name, n = t.__name__, 2
            while name in self._names.values():
                name, n = f"{t.__name__}_{n}", n + 1
            self._names[t] = name
        return self._names[t], is_new


def _is_pydantic(t: Any) -> bool:
    return isinstance(t, type) and hasattr(t, "model_json_schema") and hasattr(t, "model_validate_json")


def _is_typed_dict(t: Any) -> bool:
    return isinstance(t, type) and issubclass(t, dict) and hasattr(t, "__required_keys__")


def _hints(t: Any) -> dict[str, Any]:
    try:
        return get_type_hints(t, include_extras=True)
    except Exception as e:
        raise TypeError(f"{getattr(t, '__name__', t)}: its annotations cannot be read: {e}") from None


def schema_of(t: Any) -> dict[str, Any]:
    """The JSON Schema of a type. A dict is returned as it is.

    >>> @dataclasses.dataclass
    ... class Point:
    ...     x: int
    ...     y: int = 0
    >>> schema_of(list[int])
    {'type': 'array', 'items': {'type': 'integer'}}
    >>> schema_of(Point)["required"]
    ['x']
    """
    if isinstance(t, dict):
        return t
    if _is_pydantic(t):
        return typing.cast("dict[str, Any]", t.model_json_schema())
    definitions = Definitions()
    schema = _schema(t, definitions, "schema")
    if definitions:
        schema = {**schema, "$defs": definitions}
    if set(schema) == {"$ref", "$defs"} and json.dumps(schema).count(json.dumps(schema["$ref"])) == 1:
        name = schema["$ref"].rsplit("/", 1)[1]  # only the root names it: it can stand there itself
        schema = definitions.pop(name)
        if definitions:
            schema = {**schema, "$defs": definitions}
    return schema


def _schema(t: Any, definitions: Definitions, where: str) -> dict[str, Any]:
    t = _bare(t)
    try:
        if t in _PLAIN:
            return dict(_PLAIN[t])
        if t in _FORMATS:
            return {"type": "string", "format": _FORMATS[t][0]}
    except TypeError:  # not hashable, so no type
        raise _convert.type_error(where, "a type", t) from None
    if isinstance(t, (str, typing.ForwardRef)):
        raise TypeError(f"{where}: the type {t} is a name that is not resolved")
    origin, args = get_origin(t), get_args(t)
    if origin is typing.Annotated:
        schema = _schema(args[0], definitions, where)
        notes = [a for a in args[1:] if isinstance(a, str)]
        return {**schema, "description": notes[0]} if notes else schema
    if _qualifier(origin):
        return _schema(args[0], definitions, where)
    if origin is Literal:
        return _enumeration([v.value if isinstance(v, enum.Enum) else v for v in args])
    if origin in _UNIONS:
        return {"anyOf": [_schema(a, definitions, where) for a in args]}
    if origin is tuple and args and args[-1] is not Ellipsis:
        return {"type": "array", "prefixItems": [_schema(a, definitions, where) for a in args],
                "minItems": len(args), "maxItems": len(args)}
    if (origin or t) in _LISTS:
        schema = dict[str, Any](type="array")
        if args:
            schema["items"] = _schema(args[0], definitions, where)
        if (origin or t) in (set, frozenset):
            schema["uniqueItems"] = True
        return schema
    if (origin or t) in _DICTS:
        return {"type": "object", "additionalProperties": _schema(args[1], definitions, where)} if len(args) == 2 else \
            {"type": "object"}
    if isinstance(t, type):
        return _class_schema(t, definitions, where)
    raise _convert.type_error(where, "a type that has a JSON Schema", t)


def _enumeration(values: list[Any]) -> dict[str, Any]:
    """With the type, which chat templates want to say."""
    kinds = {type(v) for v in values}
    return {**_PLAIN[kinds.pop()], "enum": values} if len(kinds) == 1 and kinds <= {str, int, float} else {"enum": values}


def _class_schema(t: type, definitions: Definitions, where: str) -> dict[str, Any]:
    if issubclass(t, enum.Enum):
        return _enumeration([m.value for m in t])
    if not (_is_pydantic(t) or _is_typed_dict(t) or dataclasses.is_dataclass(t)):
        raise TypeError(f"{where}: {t.__name__} has no JSON Schema; a pydantic class, a dataclass, a TypedDict, an "
                        "enumeration or a plain type has one")
    name, is_new = definitions.name_of(t)  # it may name itself
    if is_new:
        definitions[name] = _members(t, name, definitions)
    return {"$ref": f"#/$defs/{name}"}


def _members(t: Any, name: str, definitions: Definitions) -> dict[str, Any]:
    if _is_pydantic(t):
        schema = t.model_json_schema()
        for inner, defined in schema.pop("$defs", {}).items():
            definitions[f"{name}.{inner}"] = _renamed(defined, name)
        return typing.cast("dict[str, Any]", _renamed(schema, name))
    hints, required = _fields(t)
    properties = {n: _schema(hint, definitions, f"{t.__name__}.{n}") for n, hint in hints.items()}
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _renamed(value: Any, name: str) -> Any:
    """A pydantic class's schema, whose own definitions are called after it: another's may have their names."""
    if isinstance(value, dict):
        return {k: _renamed(v, name) for k, v in value.items()}
    if isinstance(value, list):
        return [_renamed(v, name) for v in value]
    own = "#/$defs/"
    return f"{own}{name}.{value[len(own):]}" if isinstance(value, str) and value.startswith(own) else value


def _fields(t: Any) -> tuple[dict[str, Any], list[str]]:
    """Of a TypedDict or dataclass: the types of what JSON may give, and the names of what it must."""
    hints = _hints(t)
    if _is_typed_dict(t):  # where annotations are text, Python itself does not see what is said of one
        said = {n: _qualifier(get_origin(hint)) for n, hint in hints.items()}
        return hints, [n for n in hints if said[n] == "Required" or n in t.__required_keys__ and said[n] != "NotRequired"]
    fields = [f for f in dataclasses.fields(t) if f.init]
    required = [f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    return {f.name: hints[f.name] for f in fields}, required


def _qualifier(origin: Any) -> str:
    """"Required", "NotRequired" or "ReadOnly", also those of typing_extensions; else ""."""
    name = getattr(origin, "_name", None) if origin is not None and not isinstance(origin, type) else None
    return name if name in ("Required", "NotRequired", "ReadOnly") else ""


def _bare(t: Any) -> Any:
    """Without the names that NewType and `type` give."""
    while not isinstance(t, type) and (hasattr(t, "__supertype__") or type(t).__name__ == "TypeAliasType"):
        t = t.__supertype__ if hasattr(t, "__supertype__") else t.__value__
    return t


# ---- Back ---------------------------------------------------------------------------------------------------------


def value_of(t: Any, text: str) -> Any:
    """JSON as a value of the type; of a schema that is a dict, as json.loads has it. ValueError when it does not fit."""
    if _is_pydantic(t):
        return t.model_validate_json(text)
    try:
        data = json.loads(text)
        return data if isinstance(t, dict) else _value(t, data)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _value(t: Any, data: Any) -> Any:
    t = _bare(t)
    origin, args = get_origin(t), get_args(t)
    if origin is typing.Annotated or _qualifier(origin):
        return _value(args[0], data)
    if origin is Literal:
        return _literal(args, data)
    if origin in _UNIONS:
        return _first_that_fits(args, data)
    if isinstance(t, type) and issubclass(t, enum.Enum):
        return t(data)
    if _is_pydantic(t):
        return t.model_validate(data)
    if isinstance(t, type) and t in _FORMATS:
        return _FORMATS[t][1](_expect(data, str, t))
    if _is_typed_dict(t) or isinstance(t, type) and dataclasses.is_dataclass(t):
        hints, required = _fields(t)
        missing = [n for n in required if n not in _expect(data, dict, t)]
        if missing:
            raise ValueError(f"{t.__name__}: expected {missing[0]}, found none")
        members = {k: _value(hints[k], v) for k, v in _expect(data, dict, t).items() if k in hints}
        return {**data, **members} if _is_typed_dict(t) else typing.cast(Any, t)(**members)
    if origin is tuple and args and args[-1] is not Ellipsis:
        if len(_expect(data, list, t)) != len(args):
            raise ValueError(f"expected {len(args)} values, found {len(data)}")
        return tuple(_value(a, v) for a, v in zip(args, _expect(data, list, t)))
    if (origin or t) in _LISTS:
        items = [_value(args[0], v) if args else v for v in _expect(data, list, t)]
        kind = origin or t
        return kind(items) if kind in (set, frozenset, tuple) else items
    if (origin or t) in _DICTS:
        return {k: _value(args[1], v) if len(args) == 2 else v for k, v in _expect(data, dict, t).items()}
    if t is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if t is int and isinstance(data, float) and data.is_integer():
        return int(data)  # 3.0 is an integer in JSON Schema
    return _expect(data, t, t) if t in (str, int, float, bool, type(None)) else data


def _expect(data: Any, kind: Any, t: Any) -> Any:
    if not isinstance(data, kind) or isinstance(data, bool) and kind is not bool:
        raise ValueError(f"expected {getattr(t, '__name__', t)}, found {json.dumps(data)[:60]}")
    return data


def _literal(choices: Any, data: Any) -> Any:
    for choice in choices:
        plain = choice.value if isinstance(choice, enum.Enum) else choice
        if plain == data and isinstance(plain, bool) == isinstance(data, bool):
            return choice
    raise ValueError(f"expected one of {choices}, found {json.dumps(data)[:60]}")


def _first_that_fits(kinds: Any, data: Any) -> Any:
    for t in kinds:
        if t is type(None):
            if data is None:
                return None
            continue
        try:
            return _value(t, data)
        except (ValueError, TypeError, KeyError):
            continue
    raise ValueError(f"no kind of {kinds} fits {json.dumps(data)[:60]}")
