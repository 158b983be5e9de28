#!/usr/bin/env python3
"""Is what a grammar allows exactly what its schema allows? Keyword by keyword, against the jsonschema-rs package.

usage: test_schema_exact.py DRIVER MODEL [--small MODEL] [--values N] [--walks N] [--only KEYWORD] [--without KEYWORD] [--list N]
DRIVER is build/schema_lines, MODEL a file with the real vocabulary; walks are half made with the small one, whose tokens are
short. Each keyword has some schemas. Of each,
  the N smallest JSON values over the schema's own names and constants, written with keys in the schema's order, are accepted
  where jsonschema-rs accepts them and only there. Other spellings of the same numbers, strings and names (1.0, 1e0, "\\u0061")
  are never accepted where the value is not valid; how many valid ones are not accepted is counted, and no failure;
  N random walks through the masks give text that validates.
A schema that is refused in strict is a failure: what stands here is promised to be exact. One that nothing satisfies is none.
"""
import argparse
import collections
import decimal
import itertools
import json
import sys

import jsonschema_rs

from schemas import Doubled, Driver, exact, ordered, text

FORMATS = {
    "date": ["2024-02-29", "2023-02-28", "1999-12-31", "2000-04-30", "0001-01-01", "1900-02-29"],
    "time": ["23:59:59Z", "00:00:00+23:59", "12:30:45.123456789-08:00", "23:59:60Z", "08:30:06z", "15:59:60-08:00"],
    "date-time": ["2024-02-29T23:59:59Z", "1990-12-31T15:59:60-08:00", "1963-06-19t08:30:06.283185z", "2023-11-30T00:00:00.5+14:00"],
    "duration": ["P4DT12H30M5S", "P1Y2M3DT4H5M6S", "P4W", "PT36H", "P1M", "PT1M", "P0D", "PT0S", "P4Y"],
    "email": ["joe.bloggs@example.com", "te~st@example.museum", "A.B@Sub-1.Example.CO", "x+y_z@a.b.international"],
    "hostname": ["www.example.com", "a-b.c1", "EXAMPLE.Org", "1host", "a.b.c.d.e"],
    "ipv4": ["192.168.0.1", "255.255.255.255", "0.0.0.0", "1.20.99.249"],
    "ipv6": ["::1", "::", "2001:db8:0:42::8a2e:370:7334", "1:2:3:4:5:6:7:8", "::ffff:192.168.0.1", "fe80::A", "1::", "1:2::192.0.2.7"],
    "uuid": ["2eb8aa08-aa98-11ea-b4aa-73b441d16380", "2EB8AA08-AA98-11EA-B4Aa-73B441D16380"],
    "uri": ["http://foo.bar/?baz=qux#quux", "urn:oasis:names:tc", "mailto:John.Doe@example.com", "ftp://u:p@h:80/a%20b;c=1", "ldap://[2001:db8::7]/c",
            "tel:+1-816-555-1212", "http://1.1.1.1"],
    "uri-reference": ["http://foo.bar/?baz=qux#quux", "//foo.bar/?baz", "/abc", "abc", "#frag", "", "./a:b", "?q"],
    "json-pointer": ["/foo/bar~0/baz~1/%a", "", "/", "//", "/a/0"],
    "relative-json-pointer": ["1", "0/foo/bar", "2/0/baz~1", "0#", "120#"],
}

# Each entry is a schema, or (schema, JSON texts that are the values to build from instead of those found in it).
SCALARS = ["null", "true", "0", "1", '"a"']
MEMBERS = ["null", "1", '"a"']
TREE = {"type": "object", "properties": {"v": {"type": "integer"}, "n": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}, "required": ["v"], "additionalProperties": False}
KEYWORDS = {
    "type": [{"type": t} for t in ("null", "boolean", "integer", "number", "string", "array", "object")]
    + [{"type": ["integer", "string", "null"]}, {"type": ["array", "boolean"]}, {}, True, {"type": ["number", "integer"]}],
    "enum": [{"enum": ["a", "ab", 1, -2.5, None, True, [1, "a"], {"k": [False]}]}, {"enum": ["é", "\"", "\\", "\n", "/", "\u007f", "😀"]}, {"enum": [0, 0.0, 1e3, 1.5e-7]},
             {"type": "string", "enum": ["a", 1, "b"]}, {"enum": [[], {}, "", False, 0]}],
    "const": [{"const": v} for v in (1, 1.5, -0.0, "a", None, [1, {"a": []}], {"a": 1, "b": [2]}, False, 10**20, 0.1)],
    "minimum": [{"minimum": 3}, {"type": "integer", "minimum": -12}, {"minimum": -1.5}, {"minimum": 1e3, "type": "number"}, {"minimum": 0, "maximum": 0}],
    "maximum": [{"maximum": 3}, {"type": "integer", "maximum": 120}, {"maximum": -0.75}, {"type": "number", "minimum": -90, "maximum": 90}, {"type": "integer", "maximum": 0},
                {"maximum": 99999999999999999999, "type": "integer"}],
    "exclusiveMinimum": [{"exclusiveMinimum": 0}, {"type": "number", "exclusiveMinimum": 0.25, "exclusiveMaximum": 0.3}, {"type": "integer", "exclusiveMinimum": -10, "exclusiveMaximum": -3},
                         {"exclusiveMinimum": 1.1}, {"type": "integer", "exclusiveMinimum": 2.5}],
    "exclusiveMaximum": [{"exclusiveMaximum": 0}, {"exclusiveMaximum": 100, "minimum": 99}, {"exclusiveMaximum": -0.001, "type": "number"}, {"type": "integer", "exclusiveMaximum": 1.5}],
    "multipleOf": [{"multipleOf": 2}, {"multipleOf": 0.01}, {"multipleOf": 0.07}, {"type": "integer", "multipleOf": 7}, {"multipleOf": 2.5}, {"multipleOf": 0.0001},
                   {"type": "integer", "multipleOf": 5, "minimum": 1, "maximum": 50}, {"multipleOf": 1}, {"multipleOf": 1000}, {"type": "integer", "multipleOf": 1.5},
                   {"multipleOf": 0.5, "exclusiveMinimum": 0}, {"allOf": [{"multipleOf": 4}, {"multipleOf": 6}]}],
    "minLength": [{"minLength": 2}, {"type": "string", "minLength": 2, "maxLength": 3}, {"minLength": 0}, {"type": "string", "minLength": 3, "pattern": "^a*b?$"}],
    "maxLength": [{"maxLength": 2}, {"type": "string", "maxLength": 0}, {"type": "string", "maxLength": 3, "pattern": "b"}, {"maxLength": 2.0}],
    "pattern": [{"pattern": p} for p in ("^a+b?$", "a", "^(ab|b){2,3}$", "^[^a]b", "^[ -~]*\\Ba[ -~]*$", "^a.b$", "a$", "^\\S+$", "^\\D\\d$", "^\\W\\w$", "^[ -~]*\\ba\\b[ -~]*$", "^(?=a)..$", "^(?!ab)[ab]+$",
                                         "^(?:a|b)*?a$", "^\\p{Lu}\\p{L}$", "^[\\w-]+$", "^a{0}b$", "(^a|b$)", "^$", "", "^(?<x>a)b$", "^[\\u0061-\\x62]$", "\\u{62}", "^\\cA?$", "a|", "^[^\\s]$",
                                         "^(?!.*ab)", "(?<=a)b", "^a(?!b)", "^\\/\\.$")],
    "format": [({"type": "string", "format": f}, None) for f in FORMATS],
    "items": [({"items": {"type": "integer"}}, SCALARS), ({"type": "array", "items": {"enum": ["a", 1]}}, SCALARS), ({"items": False}, MEMBERS), ({"items": {"items": {"const": 1}}}, MEMBERS)],
    "prefixItems": [({"prefixItems": [{"type": "integer"}, {"type": "string"}]}, SCALARS), ({"type": "array", "prefixItems": [{"const": 1}], "items": {"const": "a"}}, SCALARS),
                    ({"prefixItems": [{}, {"type": "null"}], "items": False, "minItems": 1}, MEMBERS), ({"prefixItems": [True, False]}, MEMBERS)],
    "draft-07 tuples": [({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "integer"}, {"type": "string"}], "additionalItems": {"type": "null"}}, SCALARS),
                        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [{"const": 1}], "additionalItems": False}, SCALARS)],
    "minItems": [({"minItems": 2}, MEMBERS), ({"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": ["null", "integer"]}}, MEMBERS), ({"minItems": 1, "items": {"minItems": 1}}, ["1"])],
    "maxItems": [({"maxItems": 2}, MEMBERS), ({"type": "array", "maxItems": 0}, MEMBERS), ({"maxItems": 3, "items": {"maxItems": 1}}, ["1"])],
    "uniqueItems": [({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, ["0", "1", "-1", "10"]), ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, ['"a"', '"b"', '""']),
                    ({"uniqueItems": True, "items": {"type": ["boolean", "null", "integer"]}}, ["true", "false", "null", "0", "1"]),
                    ({"type": "array", "items": {"enum": ["a", "b", 1, True]}, "uniqueItems": True}, ['"a"', '"b"', "1", "true"]),
                    ({"type": "array", "items": {"type": "number"}, "uniqueItems": True, "minItems": 2, "maxItems": 4}, ["0", "0.5", "1", "-1"]),
                    ({"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True, "minItems": 2}, ['"a"', '"b"', '"c"']),
                    ({"items": {"type": ["string", "number"], "exclusiveMinimum": 0.5}, "uniqueItems": True}, ['"a"', '"1"', "1", "1.5"]),
                    ({"type": "array", "prefixItems": [{"enum": ["a", "b"]}, {"enum": ["b", 1]}, {"enum": [1, "a"]}], "items": {"type": "null"}, "minItems": 3, "uniqueItems": True}, ['"a"', '"b"', "1", "null"])],
    "contains": [({"contains": {"const": 1}}, MEMBERS), ({"type": "array", "contains": {"type": "string"}, "items": {"type": ["string", "null"]}}, MEMBERS), ({"contains": True}, MEMBERS),
                 ({"contains": False}, MEMBERS), ({"contains": {"not": {"const": 1}}}, MEMBERS)],
    "minContains": [({"contains": {"const": 1}, "minContains": 2}, MEMBERS), ({"contains": {"const": 1}, "minContains": 0}, MEMBERS), ({"contains": {"const": 1}, "minContains": 2, "maxItems": 3}, MEMBERS)],
    "maxContains": [({"contains": {"const": 1}, "maxContains": 1}, MEMBERS), ({"contains": {"const": 1}, "minContains": 1, "maxContains": 2}, ["1", "null"]),
                    ({"contains": {"const": 1}, "minContains": 0, "maxContains": 0}, MEMBERS)],
    "properties": [({"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}, MEMBERS), ({"type": "object", "properties": {"a": {}, "ab": {"const": 1}, "b": False}}, ["1", "null"]),
                   ({"type": "object", "properties": {"é": {"const": 1}, "\"": {"type": "integer"}, "": {"type": "null"}}, "additionalProperties": {"type": ["integer", "string"]}}, ["1", "null"]), (TREE, ["1", "null"])],
    "required": [({"required": ["a", "b"]}, ["1"]), ({"type": "object", "properties": {"a": {"const": 1}, "c": {}}, "required": ["b", "a"]}, ["1", "null"]),
                 ({"type": "object", "required": ["a"], "additionalProperties": False}, ["1"]), ({"required": [], "properties": {"a": {"type": "null"}}}, ["1", "null"])],
    "additionalProperties": [({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, ["1", "null"]), ({"additionalProperties": {"type": "integer"}}, ["1", "null"]),
                             ({"type": "object", "properties": {"a": {"type": "null"}, "ab": {}}, "additionalProperties": {"const": 1}}, ["1", "null"]),
                             ({"additionalProperties": False, "patternProperties": {"^a": {"const": 1}}}, ["1", "null"])],
    "patternProperties": [({"patternProperties": {"^a": {"type": "integer"}, "b$": {"const": 1}}}, ["1", "2", "null"], ["a", "b", "ab", "ba", "c", "aa"]),
                          ({"type": "object", "properties": {"ab": {"type": "integer"}}, "patternProperties": {"b": {"minimum": 1}}, "additionalProperties": {"type": "null"}}, ["0", "1", "null"], ["ab", "b", "a"]),
                          ({"type": "object", "patternProperties": {"^x": False}}, ["1", "null"], ["x", "y", "xa"]),
                          ({"type": "object", "patternProperties": {"^x": {"const": 1}}, "required": ["xa"]}, ["1", "null"], ["x", "y", "xa"])],
    "propertyNames": [({"propertyNames": {"maxLength": 1}}, ["1"], ["a", "b", "ab"]), ({"type": "object", "propertyNames": {"pattern": "^a"}, "properties": {"a": {"const": 1}}}, ["1", "null"], ["a", "b", "ab"]),
                      ({"propertyNames": False}, ["1"]), ({"type": "object", "propertyNames": {"enum": ["a", "b"]}}, ["1", "null"])],
    "minProperties": [({"minProperties": 1}, ["1", "null"], ["a", "b"]), ({"type": "object", "properties": {"a": {}, "b": {}}, "minProperties": 2, "additionalProperties": False}, ["1"]),
                      ({"type": "object", "properties": {"a": {}, "b": {"type": "null"}}, "minProperties": 1}, ["1", "null"])],
    "maxProperties": [({"maxProperties": 1}, ["1", "null"], ["a", "b"]), ({"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "maxProperties": 2}, ["1"]), ({"maxProperties": 0}, ["1"]),
                      ({"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "minProperties": 1, "maxProperties": 3, "additionalProperties": False}, ["1"])],
    "dependentRequired": [({"dependentRequired": {"a": ["b"]}}, ["1"]), ({"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "dependentRequired": {"b": ["a"], "c": ["a", "b"]}}, ["1"]),
                          ({"$schema": "http://json-schema.org/draft-07/schema#", "dependencies": {"a": ["b"], "b": {"required": ["c"]}}}, ["1"])],
    "dependentSchemas": [({"dependentSchemas": {"a": {"required": ["b"]}}}, ["1"]), ({"type": "object", "properties": {"a": {}, "b": {}}, "dependentSchemas": {"a": {"properties": {"b": {"const": 1}}}}}, ["1", "null"])],
    "allOf": [({"allOf": [{"type": "integer"}, {"minimum": 1}]}, None), ({"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"a": {"minimum": 1}, "b": {}}, "required": ["a"]}]}, ["0", "1", "null"]),
              ({"allOf": [{"pattern": "^a"}, {"pattern": "b$"}, {"maxLength": 3}]}, None), ({"allOf": [{"enum": [1, "a", None]}, {"enum": ["a", None, 2]}]}, None),
              ({"allOf": [{"items": {"type": ["integer", "null"]}}, {"prefixItems": [{"const": 1}]}]}, MEMBERS), ({"type": "object", "allOf": [{"required": ["a"]}, {"required": ["b"]}, {"properties": {"b": {}, "a": {"const": 1}}}]}, ["1", "null"])],
    "anyOf": [({"anyOf": [{"type": "integer"}, {"minLength": 2}]}, None), ({"anyOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"required": ["b"]}]}, ["1", "null"]),
              ({"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"a": {}, "b": {"type": "null"}}}, ["1", "null"]), ({"anyOf": [{"const": 1}, {"const": 2}], "minimum": 2}, None)],
    "oneOf": [({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, None), ({"oneOf": [{"properties": {"k": {"const": "a"}}, "required": ["k"]}, {"properties": {"k": {"const": "b"}}, "required": ["k"]}]}, ['"a"', '"b"', "1"]),
              ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, ["1"]), ({"oneOf": [{"pattern": "a"}, {"pattern": "b"}], "type": "string"}, None), ({"oneOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]}, None),
              ({"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}], "type": "integer"}, None), ({"oneOf": [{"enum": [{"a": 1}, [1]]}, {"type": "array"}, {"required": ["b"]}]}, ["1"], ["a", "b"]),
              ({"type": "object", "oneOf": [{"properties": {c: {"const": 1}}, "additionalProperties": False} for c in "abcdefg"]}, ["1", "2"], ["a", "b", "z"])],
    "not": [({"not": {"type": "integer"}}, None), ({"not": {"enum": ["a", 1, None]}}, None), ({"not": {"const": {"a": 1}}}, ["1", "null"], ["a", "b"]), ({"type": "string", "not": {"pattern": "^a"}}, None),
            ({"not": {"minimum": 3}, "type": "number"}, None), ({"not": {"required": ["a"]}}, ["1"]), ({"type": "object", "not": {"required": ["a", "b"]}}, ["1"]),
            ({"not": {"properties": {"a": {"const": 1}}}}, ["1", "null"]), ({"type": "object", "properties": {"a": {}}, "not": {"properties": {"a": {"type": "integer"}}, "required": ["a"]}}, ["1", "null"]),
            ({"not": {"not": {"type": "string"}}}, None), ({"not": {"anyOf": [{"type": "string"}, {"required": ["a"]}]}}, ["1", '"a"']), ({"not": {}}, MEMBERS), ({"not": {"minLength": 2}}, None),
            ({"type": "array", "not": {"maxItems": 1}}, MEMBERS), ({"not": {"enum": [[1], {"a": 1, "b": []}, {}]}}, ["1"]), ({"not": {"const": [[], {"a": None}]}}, ["null"], ["a"]), ({"not": {"multipleOf": 3}, "type": "integer"}, None)],
    "if": [({"if": {"type": "integer"}, "then": {"minimum": 1}, "else": {"type": ["null", "string"]}}, None), ({"if": {"properties": {"a": {"const": 1}}, "required": ["a"]}, "then": {"required": ["b"]}}, ["1", "null"]),
           ({"type": "object", "properties": {"k": {"enum": ["a", "b"]}, "v": {}}, "required": ["k"], "if": {"properties": {"k": {"const": "a"}}}, "then": {"properties": {"v": {"type": "integer"}}}, "else": {"properties": {"v": {"type": "null"}}}},
            ['"a"', '"b"', "1", "null"]), ({"if": {"pattern": "^a"}, "then": {"maxLength": 2}, "else": {"minLength": 1}, "type": "string"}, None), ({"if": {"minimum": 2}, "else": {"maximum": 0}, "type": "number"}, None),
           ({"if": {"enum": [{"a": 1}, [1]]}, "then": {"required": ["b"], "maxItems": 0}, "else": {"required": ["a"], "minItems": 1}}, ["1"], ["a", "b"])],
    "older drafts": [{"$schema": f"http://json-schema.org/draft-0{n}/schema#", "const": 1, "if": {"const": 1}, "then": {"minimum": 2}, "minContains": 2} for n in (4, 6, 7)]
    + [({"$schema": f"http://json-schema.org/draft-0{n}/schema#", "items": {"type": "integer"}, "properties": {"a": {"not": {"type": "integer"}}}}, ["1", "1.5", "null"]) for n in (4, 6)]
    + [({"$schema": "http://json-schema.org/draft-07/schema#", "prefixItems": [{"const": 1}], "contains": {}, "minContains": 2}, MEMBERS)],
    "unevaluatedProperties": [({"properties": {"a": {"const": 1}}, "unevaluatedProperties": False}, ["1", "null"]), ({"type": "object", "allOf": [{"properties": {"a": {}}}], "properties": {"b": {}}, "unevaluatedProperties": False}, ["1"]),
                              ({"type": "object", "anyOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}], "unevaluatedProperties": False}, ["1", "null"]),
                              ({"type": "object", "if": {"required": ["a"]}, "then": {"properties": {"a": {}, "b": {}}}, "unevaluatedProperties": {"type": "null"}}, ["1", "null"])],
    "unevaluatedItems": [({"prefixItems": [{"const": 1}], "unevaluatedItems": False}, ["1", "null"]), ({"type": "array", "allOf": [{"prefixItems": [{}, {"type": "null"}]}], "unevaluatedItems": {"const": 1}}, ["1", "null"]),
                         ({"type": "array", "anyOf": [{"prefixItems": [{"const": 1}]}, {"prefixItems": [{}, {"const": 1}]}], "unevaluatedItems": False}, ["1", "null"])],
    "$ref": [(TREE, ["1", "null"]), ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}, "minimum": 1}, None), ({"$defs": {"x/y~z": {"const": 1}}, "items": {"$ref": "#/$defs/x~1y~0z"}}, MEMBERS),
             ({"$ref": "#/$defs/l", "$defs": {"l": {"type": "array", "items": {"$ref": "#/$defs/l"}}}}, ["1"]), ({"properties": {"a": {"$ref": "#b"}}, "$defs": {"q": {"$anchor": "b", "type": "null"}}}, ["1", "null"])],
}


# ---- Values, smallest first ------------------------------------------------------------------------------

class Spelled(str):
    """A scalar or a name as JSON text; plain: it is the one canonical spelling."""

    def __new__(cls, line, plain=True):
        self = super().__new__(cls, line)
        self.plain = plain
        return self


def number(x):
    """The canonical text of a number."""
    plain = format(decimal.Decimal(str(x)), "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def is_short(line):
    """17 significant digits, or an integer of 20."""
    return len(decimal.Decimal(line).as_tuple().digits) <= (17 if "." in line else 20)


def number_spellings(line):
    """The same number, written in other ways."""
    d = decimal.Decimal(line)
    sign, digits, e = d.as_tuple()
    digits, minus = "".join(map(str, digits)), "-" * sign
    out = {line + ("" if "." in line else ".") + "0", line + "e0", line + "E+00", f"{minus}{digits}e{e}"}
    if len(digits) > 0:
        head, tail = digits[0], digits[1:].rstrip("0")
        out.add(f"{minus}{head}{'.' + tail if tail else ''}e{e + len(digits) - 1}")
        out.add(f"{minus}{head}.{tail}00E{e + len(digits) - 1:+d}")
        out.add(f"{minus}0.{digits}e{e + len(digits)}")
    if not d:
        out |= {"-0", "-0.0", "0.00", "0e5", "-0e-3"}
    return sorted(out - {line})


def string_spellings(s):
    line = json.dumps(s)
    out = {line, '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else json.dumps(c)[1:-1] for c in s) + '"', line.replace("/", "\\/")}
    return sorted(out - {text(s)})


def near(keyword, value):
    """Numbers and strings on both sides of a bound."""
    if keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        d = decimal.Decimal(str(value))
        for step in ("0", "1", "0.5", "0.1", "0.001", "1e-12", "10", "100"):
            yield from (format(x, "f") for x in (d + decimal.Decimal(step), d - decimal.Decimal(step)))
        yield from (format(x, "f") for x in (-d, d * 10, d.to_integral_value()))
    elif keyword == "multipleOf":
        d = decimal.Decimal(str(value))
        for k in ("1", "2", "3", "7", "10", "99", "100", "12345", "0.5", "0.1", "1.5", "1.0001", "333333333333"):
            yield from (format(x, "f") for x in (d * decimal.Decimal(k), -d * decimal.Decimal(k), d * decimal.Decimal(k) + 1))
    elif keyword in ("minLength", "maxLength"):
        for n in range(max(0, int(value) - 1), int(value) + 2):
            yield from (text(c * n) for c in ("a", "b", "é", "😀", "\"", "\n"))
            yield text(("aé😀\\" * n)[:n])
    elif keyword in ("const", "enum"):
        for v in value if keyword == "enum" else [value]:
            yield number(v) if isinstance(v, (int, float)) and not isinstance(v, bool) else text(v)
    elif keyword == "pattern":
        letters = sorted({c for c in value if c.isalnum()} & set("ab") | set("ab")) + ["A", "1", " ", "-", "é", "\n", ".", "/"]
        for n in range(5):
            for chars in itertools.product(letters[:12 if n < 3 else 3], repeat=n):
                yield text("".join(chars))
    elif keyword == "format":
        for seed in FORMATS[value]:
            yield text(seed)
            for i in range(len(seed) + 1):
                yield from (text(x) for x in (seed[:i] + seed[i + 1:], seed[:i] + seed[i:i + 1] * 2 + seed[i + 1:], seed[:i]))
                for c in "0139aAzZ.-:+/ @%é#T[~":
                    yield from (text(x) for x in (seed[:i] + c + seed[i:], seed[:i] + c + seed[i + 1:]))


def collect(schema, scalars, names):
    """The names and constants of a schema."""
    if isinstance(schema, list):
        for s in schema:
            collect(s, scalars, names)
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        if keyword in ("properties", "dependentRequired", "dependentSchemas", "dependencies"):
            names.update(dict.fromkeys(value))
            for k, v in value.items():
                names.update(dict.fromkeys(v if isinstance(v, list) else []))
                collect(v, scalars, names)
        elif keyword in ("patternProperties", "$defs"):
            collect(list(value.values()), scalars, names)
        elif keyword == "required":
            names.update(dict.fromkeys(value))
        elif keyword in ("const", "enum") or not isinstance(value, (dict, list)):
            scalars.update(dict.fromkeys(near(keyword, value)))
        else:
            collect(value, scalars, names)


def arrays(levels, size):
    """Lists whose items have this size together."""
    if size == 0:
        yield ()
    for first in range(1, size + 1):
        for head in levels[first]:
            for tail in arrays(levels, size - first):
                yield (head,) + tail


def values(schema, given, given_names, limit):
    """JSON values as nested tuples, Spelled scalars below: ("a", items), ("o", ((name, value), ...)) or a scalar."""
    scalars, names = {}, {}
    collect(schema, scalars, names)
    plain = list(given) if given is not None else list(dict.fromkeys(["null", "true", "false", "0", "1", "-1", "1.5", '""', '"a"', '"b"', '"ab"', *scalars]))
    names = list(given_names if given_names is not None else [*names, "z"])
    plain = list(dict.fromkeys(number(x) if x[0] in "-0123456789" else x for x in plain))
    leaves = [Spelled(x, x[0] not in "-0123456789" or is_short(x)) for x in plain]
    for x in plain:
        if x[0] in "-0123456789":
            leaves += [Spelled(y, False) for y in number_spellings(x)]
        elif x[0] == '"' and given is not None:
            leaves += [Spelled(y, False) for y in string_spellings(json.loads(x))]
    if given is not None:  # few: those of the plain spelling take part in what is larger first
        leaves.sort(key=lambda x: not x.plain)
    keys = [Spelled(text(x)) for x in names] + [Spelled(y, False) for x in names[:2] for y in string_spellings(x)]
    levels = [[], leaves + [("a", ()), ("o", ())]]
    n = 0
    for size in itertools.count(1):
        if size > 1:
            level = [("a", x) for x in itertools.islice(arrays(levels, size - 1), limit)]
            half = itertools.chain.from_iterable(
                (("o", tuple(zip(chosen, x, strict=True))) for x in arrays(levels, size - 1) if len(x) == k for chosen in itertools.combinations(keys, k))
                for k in range(1, min(size, len(keys) + 1)))
            level += itertools.islice(half, limit)
            levels.append(level)
        done = levels[size]
        objects, others = [v for v in done if v[0] == "o"], [v for v in done if v[0] != "o"]
        done = [v for pair in itertools.zip_longest(others, objects) for v in pair if v is not None]
        for v in done[:limit - n]:
            yield v
        n += len(done)
        if n >= limit or size > 8:
            return


class Name(str):
    """A key that knows how it is written."""


def build(v):
    """As Python has it, for ordering: dicts of Names, lists, and Spelled scalars. None where a name would stand twice."""
    if isinstance(v, Spelled):
        return v
    if v[0] == "a":
        items = [build(x) for x in v[1]]
        return None if None in items else items
    out = {}
    for key, x in v[1]:
        name = Name(json.loads(key))
        name.spelled = key
        value = build(x)
        if name in out or value is None:
            return None
        out[name] = value
    return out


def write(v):
    """(JSON text, is every part of it spelled plainly)"""
    if isinstance(v, Spelled):
        return str(v), v.plain
    if isinstance(v, list):
        parts = [write(x) for x in v]
        return "[" + ", ".join(p for p, _ in parts) + "]", all(plain for _, plain in parts)
    parts = [(k.spelled, *write(x)) for k, x in v.items()]
    return "{" + ", ".join(f"{k}: {p}" for k, p, _ in parts) + "}", all(k.plain and plain for k, _, plain in parts)


# ---- Counts ----------------------------------------------------------------------------------------------------

COLUMNS = ["schemas", "refused", "values", "valid", "missed", "let through", "spellings missed", "walks", "doubled", "invalid", "dead ends", "crashes"]
FAILURES = ["refused", "missed", "let through", "invalid", "dead ends", "crashes"]


def is_valid(validator, value):
    try:
        return validator.is_valid(value)
    except (ValueError, OverflowError):
        return None


def tame(value):
    """No number that takes megabytes to write out, or more digits than jsonschema-rs compares."""
    if isinstance(value, decimal.Decimal):
        return abs(value.adjusted()) < 400 and len(value.as_tuple().digits) <= 15
    if isinstance(value, dict):
        return all(tame(v) for v in value.values())
    return not isinstance(value, list) or all(tame(v) for v in value)


def check_values(row, schema, validator, lines, accepts, say):
    for (line, plain), accepted in zip(lines, accepts, strict=True):
        valid = is_valid(validator, exact(line))
        row["values"] += 1
        row["valid"] += bool(valid)
        if accepted < 0:
            row["crashes"] += 1
            say("mask and reading disagree", schema, line)
        elif valid and not accepted and plain:
            row["missed"] += 1
            say("missed", schema, line)
        elif valid and not accepted:
            row["spellings missed"] += 1
        elif valid is False and accepted:
            row["let through"] += 1
            say("let through", schema, line)


def check_walks(row, schema, names, validator, result, say):
    """Undeclared names may stand twice: a grammar does not remember them."""
    row["dead ends"] += result["dead"]
    if result["dead"]:
        say("dead end", schema, "")
    for line in result["samples"]:
        row["walks"] += 1
        try:
            value = exact(line)
            ok = not tame(value) or is_valid(validator, value) is not False
        except Doubled as e:
            ok = e.name not in names
            row["doubled"] += ok
        except (ValueError, decimal.InvalidOperation) as e:
            ok, line = False, f"{line} ({e})"
        if not ok:
            row["invalid"] += 1
            say("walk is not valid", schema, line)


def check_schema(row, entry, drivers, args, say):
    schema, given, names = (entry if isinstance(entry, tuple) else (entry, None)) + ((None,) if not isinstance(entry, tuple) or len(entry) == 2 else ())
    validator = jsonschema_rs.validator_cls_for(schema)(schema, validate_formats=True)
    lines, declared = {}, {}
    collect(schema, {}, declared)
    for v in values(schema, given, names, args.values):
        built = build(v)
        if built is not None:
            line, plain = write(ordered(schema, built))
            lines[line] = lines.get(line, False) or plain
    lines = list(lines.items())
    row["schemas"] += 1
    for i, driver in enumerate(drivers):
        result = driver.ask("\t".join([text(schema)] + ([line for line, _ in lines] if i == 0 else [])))
        if "ended" in result:
            row["crashes"] += 1
            say(result["ended"], schema, "")
        elif "error" in result:
            nothing = result["error"].endswith("nothing can satisfy it") and not any(is_valid(validator, exact(x)) for x, _ in lines)
            if i == 0 and not nothing:
                row["refused"] += 1
                say("refused", schema, result["error"])
        else:
            if i == 0:
                check_values(row, schema, validator, lines, result["accepts"], say)
            check_walks(row, schema, declared, validator, result, say)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("driver")
    ap.add_argument("model")
    ap.add_argument("--small", default="tests/data/tokenizer_small.g4")
    ap.add_argument("--values", type=int, default=10000)
    ap.add_argument("--walks", type=int, default=1000)
    ap.add_argument("--only", action="append", help="this keyword (several times: these)")
    ap.add_argument("--without", action="append", default=[], help="not this keyword (several times: none of these)")
    ap.add_argument("--list", type=int, default=3, help="so many failures of a kind and schema are shown")
    args = ap.parse_args()
    sys.set_int_max_str_digits(0)
    drivers = [Driver([args.driver, model, "strict", str((args.walks + 1) // 2)]) for model in (args.model, args.small)]
    rows, shown = {}, collections.Counter()

    def say(what, schema, line):
        key = (what, text(schema))
        shown[key] += 1
        if shown[key] <= args.list:
            print(f"{what}: {text(schema)[:240]}  {line[:200]}", flush=True)

    for keyword, entries in KEYWORDS.items():
        if (args.only and keyword not in args.only) or keyword in args.without:
            continue
        rows[keyword] = collections.Counter()
        for entry in entries:
            check_schema(rows[keyword], entry, drivers, args, say)
    for d in drivers:
        d.close()
    print("\n| keyword | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 1))
    total = sum(rows.values(), collections.Counter())
    for keyword, row in [*rows.items(), ("**all**", total)]:
        print(f"| {keyword} | " + " | ".join(str(row[c]) for c in COLUMNS) + " |")
    failed = sum(total[c] for c in FAILURES)
    print(f"{total['values'] + total['walks'] - failed + total['refused']} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
