"""gemma4.h as data: its structs, enumerators, function types and functions, for what writes them down in other languages.

    python3 tools/interface.py    print a C program that says what a compiler makes of all that

The declarations of that header are all of a few forms, so regular expressions read them; what is left over is an error.
"""

import os
import re
import sys

HEADER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "gemma4.h")

IDENTIFIER = r"[A-Za-z_][A-Za-z_0-9]*"


class Declarator:
    """One name of a declaration: its base type, stars, array length, and for a pointer to a function its parameters.
    is_const: of each star from the inside out, whether what it points to is const."""

    def __init__(self, name, base, stars, length=None, parameters=None, is_const=()):
        self.name, self.base, self.stars, self.length, self.parameters = name, base, stars, length, parameters
        self.is_const = list(is_const) or [False] * stars


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


def consts(text):
    """"const char *const *" -> [True, True]: what each star points to"""
    return ["const" in part.split() for part in text.split("*")[:-1]]


def read_parameters(text):
    """Of a function, as declarators. An array is a pointer there."""
    result = []
    for p in (p.strip() for p in text.split(",")):
        if p == "void":
            continue
        m = re.fullmatch(rf"(.*?[\s*])({IDENTIFIER})(\[\d*\])?", p, flags=re.S)
        text = m.group(1) + ("*" if m.group(3) else "")
        result.append(Declarator(m.group(2), *base_and_stars(text), is_const=consts(text)))
    return result


def read_result(text):
    """What a function gives, as a declarator without a name."""
    return Declarator("", *base_and_stars(text), is_const=consts(text))


def read_members(body):
    """The fields of a struct, in order."""
    result = []
    for member in (m.strip() for m in body.split(";")):
        if not member:
            continue
        m = re.fullmatch(rf"(.*?)\(\*\s*({IDENTIFIER})\)\s*\((.*)\)", member, flags=re.S)
        if m:
            result.append(Declarator(m.group(2), *base_and_stars(m.group(1)), parameters=read_parameters(m.group(3)),
                                     is_const=consts(m.group(1))))
            continue
        first, *others = member.split(",")
        m = re.fullmatch(rf"(.*?)((?:\*\s*(?:const\s*)?)*)({IDENTIFIER})\s*(\[\d+\])?", first, flags=re.S)
        base, _ = base_and_stars(m.group(1))
        declarators = [m.group(2) + m.group(3) + (m.group(4) or "")] + others
        for d in declarators:
            d = re.fullmatch(rf"\s*([*\sconst]*?)({IDENTIFIER})\s*(?:\[(\d+)\])?\s*", d, flags=re.S)
            length = int(d.group(3)) if d.group(3) else None
            result.append(Declarator(d.group(2), base, d.group(1).count("*"), length, is_const=consts(m.group(1) + d.group(1))))
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
                self.calls[m["call"]] = (read_result(m["result"]), read_parameters(m["of_call"]))
                self.order.append(m["call"])
            else:
                self.functions[m["function"]] = (read_result(m["returns"]), read_parameters(m["of_function"]))
        found = len(self.structs) + len(self.enums) + len(self.calls) + len(self.opaque)
        declared = len(re.findall(r"\btypedef\b", text)) - 1  # g4_token stands in PLAIN
        if found != declared or len(self.functions) != len(re.findall(r"\bG4_API\s+\w", text)):
            sys.exit(f"interface.py: gemma4.h has {declared} types, {found} were read")


def proof(api):
    """A C program that prints what a compiler makes of it: "struct NAME SIZE", "field NAME.FIELD OFFSET SIZE", "value NAME
    VALUE", "function NAME PARAMETERS SIZE", the last of what it gives. It does not compile where a function was read wrongly."""
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
        out.append(f'    printf("function {name} %d %zu\\n", {count}, {"0 * " if (returns.base, returns.stars) == ("void", 0) else ""}'
                   f'sizeof({"int" if (returns.base, returns.stars) == ("void", 0) else call(name, parameters)}));')
    return "\n".join(out + ["    return 0;", "}"]) + "\n"


def call(name, parameters):
    """A call that is compiled and never made, with arguments of the types that were read."""
    given = []
    for p in parameters:
        pointer = "const char *const *" if (p.base, p.stars) == ("char", 2) else f"{p.base} {'*' * p.stars}"
        given.append(f"*({pointer}*)0")
    return f"{name}({', '.join(given)})"


if __name__ == "__main__":
    sys.stdout.write(proof(Interface()))
