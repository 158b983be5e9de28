#!/usr/bin/env python3
"""Write python/gemma4c/_mirror.py: what gemma4.h declares, in the words of ctypes.

    python3 tools/make_python_mirror.py            print the mirror
    python3 tools/make_python_mirror.py --proof    print a C program that checks it

The header is the only source: structs, enumerators, function types and functions are read from it, so nobody copies an
offset by hand. The C program prints what a compiler makes of the same names ("struct NAME SIZE", "field NAME.FIELD
OFFSET SIZE", "value NAME VALUE"), and does not compile where a function was read wrongly; python/tests/test_mirror.py
compares it with the mirror.
"""

import os
import re
import sys

HEADER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "gemma4.h")

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
IDENTIFIER = r"[A-Za-z_][A-Za-z_0-9]*"


class Declarator:
    """One name of a declaration: its base type, stars, array length, and for a pointer to a function its parameters."""

    def __init__(self, name, base, stars, length=None, parameters=None):
        self.name, self.base, self.stars, self.length, self.parameters = name, base, stars, length, parameters


def read_header():
    """The header's declarations: without comments, directives and the implementation switch."""
    with open(HEADER, encoding="utf-8") as f:
        text = f.read()
    version = re.search(r'#define G4_VERSION "([^"]*)"', text).group(1)
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    text = text[: text.index("#endif", text.index("g4_boxes_free"))]
    text = re.sub(r"^#.*?(?<!\\)$", "", text, flags=re.M)
    return version, text


def base_and_stars(text):
    """"const char *const *" -> ("char", 2)"""
    stars = text.count("*")
    words = [w for w in re.findall(IDENTIFIER, text) if w not in ("const", "struct", "extern")]
    return " ".join(words), stars


def read_parameters(text):
    """Of a function, as declarators. An array is a pointer there."""
    result = []
    for p in (p.strip() for p in text.split(",")):
        if p == "void":
            continue
        m = re.fullmatch(rf"(.*?[\s*])({IDENTIFIER})(\[\d*\])?", p, flags=re.S)
        base, stars = base_and_stars(m.group(1))
        result.append(Declarator(m.group(2), base, stars + (1 if m.group(3) else 0)))
    return result


def read_members(body):
    """The fields of a struct, in order."""
    result = []
    for member in (m.strip() for m in body.split(";")):
        if not member:
            continue
        m = re.fullmatch(rf"(.*?)\(\*\s*({IDENTIFIER})\)\s*\((.*)\)", member, flags=re.S)
        if m:
            base, stars = base_and_stars(m.group(1))
            result.append(Declarator(m.group(2), base, stars, parameters=read_parameters(m.group(3))))
            continue
        first, *others = member.split(",")
        m = re.fullmatch(rf"(.*?)((?:\*\s*(?:const\s*)?)*)({IDENTIFIER})\s*(\[\d+\])?", first, flags=re.S)
        base, _ = base_and_stars(m.group(1))
        declarators = [m.group(2) + m.group(3) + (m.group(4) or "")] + others
        for d in declarators:
            d = re.fullmatch(rf"\s*([*\sconst]*?)({IDENTIFIER})\s*(?:\[(\d+)\])?\s*", d, flags=re.S)
            length = int(d.group(3)) if d.group(3) else None
            result.append(Declarator(d.group(2), base, d.group(1).count("*"), length))
    return result


def read_enumerators(body):
    """(name, value) of each, in order."""
    result, value = [], 0
    for item in (i.strip() for i in body.split(",")):
        if not item:
            continue
        name, _, given = (part.strip() for part in item.partition("="))
        value = int(given) if given else value
        result.append((name, value))
        value += 1
    return result


class Interface:
    """What the header declares, in its order."""

    def __init__(self):
        self.version, text = read_header()
        self.enums, self.structs, self.calls, self.opaque, self.functions = {}, {}, {}, [], {}
        self.order = []  # structs and function types: what a later one may name
        pattern = (
            rf"typedef enum \{{(?P<enum>[^}}]*)\}} (?P<enum_name>{IDENTIFIER});"
            rf"|typedef struct \{{(?P<struct>[^}}]*)\}} (?P<struct_name>{IDENTIFIER});"
            rf"|typedef struct (?P<opaque>{IDENTIFIER}) (?P=opaque);"
            rf"|typedef (?P<result>[^;(]*?)\(\*(?P<call>{IDENTIFIER})\)\s*\((?P<of_call>[^;]*)\);"
            rf"|G4_API (?P<returns>[^;(]*?)(?P<function>g4_[a-z0-9_]+)\((?P<of_function>[^;]*)\);"
        )
        for m in re.finditer(pattern, text):
            if m["enum_name"]:
                self.enums[m["enum_name"]] = read_enumerators(m["enum"])
            elif m["struct_name"]:
                self.structs[m["struct_name"]] = read_members(m["struct"])
                self.order.append(m["struct_name"])
            elif m["opaque"]:
                self.opaque.append(m["opaque"])
            elif m["call"]:
                self.calls[m["call"]] = (base_and_stars(m["result"]), read_parameters(m["of_call"]))
                self.order.append(m["call"])
            else:
                self.functions[m["function"]] = (base_and_stars(m["returns"]), read_parameters(m["of_function"]))
        found = len(self.structs) + len(self.enums) + len(self.calls) + len(self.opaque)
        declared = len(re.findall(r"\btypedef\b", text)) - 1  # g4_token stands in PLAIN
        if found != declared or len(self.functions) != len(re.findall(r"\bG4_API\s+\w", text)):
            sys.exit(f"make_python_mirror.py: gemma4.h has {declared} types, {found} were read")

    # ---- In the words of ctypes

    def ctype(self, base, stars):
        """The ctypes expression of a type. Opaque objects are addresses."""
        if base in self.opaque or base == "void":
            base, stars = "c_void_p", stars - 1
            return base if stars == 0 else f"POINTER({self.ctype('c_void_p', stars - 1)})" if stars > 0 else "None"
        if base == "char" and stars > 0:
            base, stars = "c_char_p", stars - 1
        elif base in PLAIN:
            base = PLAIN[base][0]
        elif base in self.enums:
            base = "c_int"
        for _ in range(stars):
            base = f"POINTER({base})"
        return base

    def function_type(self, returns, parameters):
        return "CFUNCTYPE(" + ", ".join([self.ctype(*returns)] + [self.ctype(p.base, p.stars) for p in parameters]) + ")"

    def field_type(self, struct, field):
        if field.parameters is not None:
            return f"{struct}_{field.name}"  # a function type of its own, named after its place
        base = self.ctype(field.base, field.stars)
        return f"{base} * {field.length}" if field.length else base

    def field_hint(self, field):
        """What reading the field gives. Texts may be NULL; of pointers nobody says more than ctypes does."""
        if field.parameters is not None or field.base in self.calls:
            return "Any"
        if field.length:
            return "bytes" if field.base == "char" else "Any"
        if field.stars:
            return "bytes | None" if field.base == "char" and field.stars == 1 else "Any"
        if field.base in self.structs:
            return field.base
        return "int" if field.base in self.enums else PLAIN[field.base][1]


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
            out += ["", f"{name} = {api.function_type(returns, parameters)}"]
            continue
        fields = api.structs[name]
        out.append("")
        for f in fields:
            if f.parameters is not None:
                out.append(f"{name}_{f.name} = {api.function_type((f.base, f.stars), f.parameters)}")
        out += ["", f"class {name}(Structure):"]
        out += [f"    {f.name}: {api.field_hint(f)}" for f in fields]
        pairs = [f'("{f.name}", {api.field_type(name, f)})' for f in fields]
        out += ["    _fields_: ClassVar[Any] = [", wrapped(pairs, "        "), "    ]", ""]
    out += ["", "# Of each function what it gives and what it takes.", "FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {"]
    for name, (returns, parameters) in api.functions.items():
        taken = ", ".join(api.ctype(p.base, p.stars) for p in parameters)
        line = f'    "{name}": ({api.ctype(*returns)}, [{taken}]),'
        if len(line) > 120:
            inner = wrapped([api.ctype(p.base, p.stars) for p in parameters], "        ")
            line = f'    "{name}": ({api.ctype(*returns)}, [\n{inner}\n    ]),'
        out.append(line)
    out.append("}")
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(out)) + "\n"


def proof(api):
    """The C program of --proof. _Generic does not look through const, so functions are compared as they are declared."""
    out = ["#include <stddef.h>", "#include <stdio.h>", "", '#include "gemma4.h"', "", "int main(void)", "{"]
    for name, fields in api.structs.items():
        out.append(f'    printf("struct {name} %zu\\n", sizeof({name}));')
        for f in fields:
            out.append(
                f'    printf("field {name}.{f.name} %zu %zu\\n", offsetof({name}, {f.name}), '
                f"sizeof((({name} *)0)->{f.name}));"
            )
    for items in api.enums.values():
        out += [f'    printf("value {item} %d\\n", (int){item});' for item, _ in items]
    for name, (returns, parameters) in api.functions.items():
        count = len(parameters)
        out.append(f'    printf("function {name} %d %zu\\n", {count}, {"0 * " if returns == ("void", 0) else ""}'
                   f'sizeof({"int" if returns == ("void", 0) else call(name, parameters)}));')
    return "\n".join(out + ["    return 0;", "}"]) + "\n"


def call(name, parameters):
    """A call that is compiled and never made, with arguments of the types that were read."""
    given = []
    for p in parameters:
        pointer = "const char *const *" if (p.base, p.stars) == ("char", 2) else f"{p.base} {'*' * p.stars}"
        given.append(f"*({pointer}*)0")
    return f"{name}({', '.join(given)})"


def main():
    api = Interface()
    sys.stdout.write(proof(api) if "--proof" in sys.argv[1:] else mirror(api))


if __name__ == "__main__":
    main()
