"""Types as JSON Schema, and JSON back into their values: pydantic classes, dataclasses, TypedDicts, enumerations and
the usual annotations; a dict is a schema itself."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import json
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from . import _convert

__all__ = ["schema_of", "value_of"]

_PLAIN = {str: {"type": "string"}, int: {"type": "integer"}, float: {"type": "number"}, bool: {"type": "boolean"},
          type(None): {"type": "null"}, dict: {"type": "object"}, list: {"type": "array"}, Any: {}, object: {}}
_UNIONS = (Union, getattr(types, "UnionType", Union))
_LISTS = (list, set, frozenset, tuple, collections.abc.Sequence, collections.abc.Iterable)


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
    definitions: dict[str, Any] = {}
    schema = _schema(t, definitions, "schema")
    if definitions:
        schema = {**schema, "$defs": definitions}
    if set(schema) == {"$ref", "$defs"} and json.dumps(schema).count(json.dumps(schema["$ref"])) == 1:
        name = schema["$ref"].rsplit("/", 1)[1]  # only the root names it: it can stand there itself
        schema = definitions.pop(name)
        if definitions:
            schema = {**schema, "$defs": definitions}
    return schema


def _schema(t: Any, definitions: dict[str, Any], where: str) -> dict[str, Any]:
    try:
        if t in _PLAIN:
            return dict(_PLAIN[t])
    except TypeError:  # not hashable, so no type
        raise _convert.type_error(where, "a type", t) from None
    if isinstance(t, (str, typing.ForwardRef)):
        raise TypeError(f"{where}: the type {t} is a name that is not resolved")
    origin, args = get_origin(t), get_args(t)
    if origin is typing.Annotated:
        schema = _schema(args[0], definitions, where)
        notes = [a for a in args[1:] if isinstance(a, str)]
        return {**schema, "description": notes[0]} if notes else schema
    if origin in (typing.Required, typing.NotRequired) if hasattr(typing, "Required") else False:
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
    if (origin or t) in (dict, collections.abc.Mapping):
        return {"type": "object", "additionalProperties": _schema(args[1], definitions, where)} if len(args) == 2 else \
            {"type": "object"}
    if isinstance(t, type):
        return _class_schema(t, definitions, where)
    raise _convert.type_error(where, "a type that has a JSON Schema", t)


def _enumeration(values: list[Any]) -> dict[str, Any]:
    """With the type, which chat templates want to say."""
    kinds = {type(v) for v in values}
    return {**_PLAIN[kinds.pop()], "enum": values} if len(kinds) == 1 and kinds <= {str, int, float} else {"enum": values}


def _class_schema(t: type, definitions: dict[str, Any], where: str) -> dict[str, Any]:
    if issubclass(t, enum.Enum):
        return _enumeration([m.value for m in t])
    if not (_is_pydantic(t) or _is_typed_dict(t) or dataclasses.is_dataclass(t)):
        raise TypeError(f"{where}: {t.__name__} has no JSON Schema; a pydantic class, a dataclass, a TypedDict, an "
                        "enumeration or a plain type has one")
    name = t.__name__
    if name not in definitions:
        definitions[name] = {}  # it may name itself
        definitions[name] = _members(t, definitions)
    return {"$ref": f"#/$defs/{name}"}


def _members(t: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if _is_pydantic(t):
        schema = t.model_json_schema()
        definitions.update(schema.pop("$defs", {}))
        return typing.cast("dict[str, Any]", schema)
    hints = _hints(t)
    if _is_typed_dict(t):
        names, required = list(hints), [n for n in hints if n in t.__required_keys__]
    else:
        fields = [f for f in dataclasses.fields(t) if f.init]
        names = [f.name for f in fields]
        required = [f.name for f in fields
                    if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    properties = {n: _schema(hints[n], definitions, f"{t.__name__}.{n}") for n in names}
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return schema


# ---- Back ---------------------------------------------------------------------------------------------------------


def value_of(t: Any, text: str) -> Any:
    """JSON as a value of the type; of a schema that is a dict, as json.loads has it. ValueError when it does not fit."""
    if _is_pydantic(t):
        return t.model_validate_json(text)
    data = json.loads(text)
    return data if isinstance(t, dict) else _value(t, data)


def _value(t: Any, data: Any) -> Any:
    origin, args = get_origin(t), get_args(t)
    if origin is typing.Annotated or hasattr(typing, "Required") and origin in (typing.Required, typing.NotRequired):
        return _value(args[0], data)
    if origin in _UNIONS:
        return _first_that_fits(args, data)
    if isinstance(t, type) and issubclass(t, enum.Enum):
        return t(data)
    if _is_pydantic(t):
        return t.model_validate(data)
    if _is_typed_dict(t):
        hints = _hints(t)
        return {k: _value(hints[k], v) if k in hints else v for k, v in _expect(data, dict, t).items()}
    if dataclasses.is_dataclass(t):
        hints = _hints(t)
        return typing.cast(Any, t)(**{k: _value(hints[k], v) for k, v in _expect(data, dict, t).items() if k in hints})
    if origin is tuple and args and args[-1] is not Ellipsis:
        return tuple(_value(a, v) for a, v in zip(args, _expect(data, list, t)))
    if (origin or t) in _LISTS:
        items = [_value(args[0], v) if args else v for v in _expect(data, list, t)]
        kind = origin or t
        return kind(items) if kind in (set, frozenset, tuple) else items
    if origin is dict and len(args) == 2:
        return {k: _value(args[1], v) for k, v in _expect(data, dict, t).items()}
    if t is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if t is int and isinstance(data, float) and data.is_integer():
        return int(data)  # 3.0 is an integer in JSON Schema
    return _expect(data, t, t) if t in (str, int, float, bool) else data


def _expect(data: Any, kind: Any, t: Any) -> Any:
    if not isinstance(data, kind) or isinstance(data, bool) and kind is not bool:
        raise ValueError(f"expected {getattr(t, '__name__', t)}, found {json.dumps(data)[:60]}")
    return data


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
