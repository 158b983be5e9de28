#!/usr/bin/env python3
"""Write python/gemma4c/_mirror.py: what gemma4.h declares, in the words of ctypes.

    python3 tools/make_python_mirror.py > python/gemma4c/_mirror.py

The header is read by tools/interface.py, so nobody copies an offset by hand; python/tests/test_mirror.py compares the mirror
with what a C compiler says.
"""

import re
import sys

from interface import Interface

# C's name of a plain type: ctypes' name, and what reading a field of it gives in Python.
PLAIN = {
    "int": ("c_int", "int"),
    "char": ("c_char", "bytes"),
    "unsigned char": ("c_ubyte", "int"),
    "float": ("c_float", "float"),
    "double": ("c_double", "float"),
    "size_t": ("c_size_t", "int"),
    "uint8_t": ("c_uint8", "int"),
    "int32_t": ("c_int32", "int"),
    "uint32_t": ("c_uint32", "int"),
    "int64_t": ("c_int64", "int"),
    "uint64_t": ("c_uint64", "int"),
    "g4_token": ("c_int32", "int"),
}


class Words:
    """The interface's types as ctypes names them."""

    def __init__(self, api):
        self.api = api

    def ctype(self, d):
        """The ctypes expression of a declarator's type. Opaque objects are addresses."""
        return self.pointer(d.base, d.stars)

    def pointer(self, base, stars):
        if base in self.api.opaque or base == "void":
            base, stars = "c_void_p", stars - 1
            return base if stars == 0 else f"POINTER({self.pointer('c_void_p', stars - 1)})" if stars > 0 else "None"
        if base == "char" and stars > 0:
            base, stars = "c_char_p", stars - 1
        elif base in PLAIN:
            base = PLAIN[base][0]
        elif base in self.api.enums:
            base = "c_int"
        for _ in range(stars):
            base = f"POINTER({base})"
        return base

    def function_type(self, returns, parameters):
        return "CFUNCTYPE(" + ", ".join([self.ctype(p) for p in [returns, *parameters]]) + ")"

    def field_type(self, struct, field):
        if field.parameters is not None:
            return f"{struct}_{field.name}"  # a function type of its own, named after its place
        base = self.ctype(field)
        return f"{base} * {field.length}" if field.length else base

    def field_hint(self, field):
        """What reading the field gives. Texts may be NULL; of pointers nobody says more than ctypes does."""
        if field.parameters is not None or field.base in self.api.calls:
            return "Any"
        if field.length:
            return "bytes" if field.base == "char" else "Any"
        if field.stars:
            return "bytes | None" if field.base == "char" and field.stars == 1 else "Any"
        if field.base in self.api.structs:
            return field.base
        return "int" if field.base in self.api.enums else PLAIN[field.base][1]


def wrapped(items, indent, width=120):
    """Items with commas between them, in lines that begin with `indent`."""
    lines, line = [], indent
    for item in items:
        if len(line) + len(item) + 2 > width and line.strip():
            lines.append(line.rstrip())
            line = indent
        line += item + ", "
    return "\n".join(lines + [line.rstrip()])


def mirror(api):
    words = Words(api)
    out = [
        '"""gemma4.h in the words of ctypes. Made by tools/make_python_mirror.py from the header: do not edit."""',
        "",
        "from __future__ import annotations",
        "",
        "from ctypes import (",
        "    CFUNCTYPE, POINTER, Structure, c_char, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_ubyte,",
        "    c_uint8, c_uint32, c_uint64, c_void_p,",
        ")",
        "from typing import Any, ClassVar",
        "",
        f'VERSION = "{api.version}"',
    ]
    for name, items in api.enums.items():
        out += ["", f"# {name}"] + [f"{item} = {value}" for item, value in items]
    for name in api.order:
        if name in api.calls:
            returns, parameters = api.calls[name]
            out += ["", f"{name} = {words.function_type(returns, parameters)}"]
            continue
        fields = api.structs[name]
        out.append("")
        for f in fields:
            if f.parameters is not None:
                out.append(f"{name}_{f.name} = {words.function_type(f, f.parameters)}")
        out += ["", f"class {name}(Structure):"]
        out += [f"    {f.name}: {words.field_hint(f)}" for f in fields]
        pairs = [f'("{f.name}", {words.field_type(name, f)})' for f in fields]
        out += ["    _fields_: ClassVar[Any] = [", wrapped(pairs, "        "), "    ]", ""]
    out += ["", "# Of each function what it gives and what it takes.", "FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {"]
    for name, (returns, parameters) in api.functions.items():
        taken = ", ".join(words.ctype(p) for p in parameters)
        line = f'    "{name}": ({words.ctype(returns)}, [{taken}]),'
        if len(line) > 120:
            inner = wrapped([words.ctype(p) for p in parameters], "        ")
            line = f'    "{name}": ({words.ctype(returns)}, [\n{inner}\n    ]),'
        out.append(line)
    out.append("}")
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(out)) + "\n"


def main():
    sys.stdout.write(mirror(Interface()))


if __name__ == "__main__":
    main()
