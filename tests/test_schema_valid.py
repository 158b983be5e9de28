#!/usr/bin/env python3
"""Constrained output against the jsonschema-rs package: what is written under a schema is valid.

usage: test_schema_valid.py DRIVER MODEL [--n N] [--samples K] [--mode strict|loosened]
DRIVER is build/schema_lines. Schemas: those below and N random ones. One that is refused is counted, not failed.
"""
import argparse
import collections
import random
import sys

from jsonschema_rs import Draft202012Validator

from schemas import Doubled, Driver, exact, text
from test_schema_exact import collect

SCHEMAS = [
    {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0, "maximum": 120},
                                      "tags": {"type": "array", "items": {"enum": ["red", "green", "rød"]}, "minItems": 1, "maxItems": 3}},
     "required": ["name", "age"], "additionalProperties": False},
    {"type": "number", "minimum": -1.5, "maximum": 2.25}, {"type": "number", "exclusiveMinimum": 0.25, "exclusiveMaximum": 0.3},
    {"type": "integer", "exclusiveMinimum": -10, "exclusiveMaximum": -3}, {"type": "integer", "minimum": 95, "maximum": 1203},
    {"type": "number", "minimum": 1e3}, {"type": "number", "exclusiveMaximum": -0.001}, {"type": "integer", "maximum": 0},
    {"type": "string", "pattern": "^[A-Z]{2}-\\d+$"}, {"type": "string", "pattern": "a.b|^c\"\\\\d$"}, {"type": "string", "pattern": "^(ab|c){2,3}[^x-z\\n]?$"},
    {"type": "string", "minLength": 2, "maxLength": 5}, {"type": "string", "maxLength": 300}, {"enum": ["a\"b", 1, None, [1, "x"], {"k": [True]}]},
    {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/n"}]}},
                                          "required": ["v", "next"], "additionalProperties": False}}},
    {"type": "object", "additionalProperties": {"type": "integer", "minimum": 3}, "properties": {"ab": {"type": "string"}, "abc": {"type": "null"}, "ö": {}}},
    {"type": "object", "required": ["x", "y"], "properties": {"x": {"const": 3}}},
    {"type": "array", "prefixItems": [{"type": "string", "format": "date"}, {"type": "boolean"}], "items": False, "minItems": 2},
    {"type": "array", "prefixItems": [{"type": "null"}], "items": {"type": "integer"}, "maxItems": 4},
    {"oneOf": [{"type": "object", "properties": {"kind": {"const": "a"}, "n": {"type": "integer"}}, "required": ["kind"]},
               {"type": "object", "properties": {"kind": {"const": "b"}, "s": {"type": "string"}}, "required": ["kind", "s"]}]},
    {"type": ["integer", "string", "null"], "minimum": 5, "maxLength": 3}, {"type": "object", "minProperties": 1, "properties": {"a": {}, "b": {"type": "null"}}},
    {"type": "string", "format": "date-time"}, {"type": "string", "format": "uuid"}, {"type": "string", "format": "ipv4"}, {}, True, {"type": "array"}, {"type": "object"},
]


def schema(r, depth=0):
    """A random schema of the supported kind."""
    kind = r.choice(["string", "integer", "number", "boolean", "null", "enum"] + ["object", "array", "anyOf"] * (depth < 3))
    if kind == "string":
        s = {"type": "string"}
        if r.random() < 0.4:
            s["minLength"] = r.randint(0, 6)
            s["maxLength"] = s["minLength"] + r.randint(0, 60)
        elif r.random() < 0.3:
            s["pattern"] = r.choice(["^a+b?$", "x", "^[^\"]{1,3}$", "^(yes|no)$", "\\.(png|jpe?g)$", "^\\w+@\\w+$", "[0-9]{3}", "^[\\u0400-\\u04ff ]*$"])
        return s
    if kind in ("integer", "number"):
        s = {"type": kind}
        low = r.choice([-1000, -12.5, -1, 0, 0.001, 3, 99, 1e4])
        if kind == "integer":
            low = int(low)
        if r.random() < 0.5:
            s[r.choice(["minimum", "exclusiveMinimum"])] = low
        if r.random() < 0.5:
            s[r.choice(["maximum", "exclusiveMaximum"])] = low + r.choice([2, 7, 100, 12345])
        return s
    if kind == "enum":
        return {"enum": r.sample(["a", "ab", "abc", 1, -2.5, None, True, "ü", "\n", [1], {"a": 1}], r.randint(1, 5))}
    if kind == "object":
        names = r.sample(["a", "ab", "abc", "b c", "ü", "\"q\"", "id", "x/y"], r.randint(0, 4))
        s = {"type": "object", "properties": {k: schema(r, depth + 1) for k in names}, "required": [k for k in names if r.random() < 0.5]}
        if r.random() < 0.5:
            s["additionalProperties"] = r.choice([False, True, schema(r, depth + 1)])
        return s
    if kind == "array":
        s = {"type": "array", "items": schema(r, depth + 1)}
        if r.random() < 0.5:
            s["minItems"] = r.randint(0, 2)
            s["maxItems"] = s["minItems"] + r.randint(0, 3)
        return s
    if kind == "anyOf":
        return {"anyOf": [schema(r, depth + 1) for _ in range(r.randint(1, 3))]}
    return {"type": kind}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("driver")
    ap.add_argument("model")
    ap.add_argument("--n", type=int, default=300)
    ap.add_argument("--samples", type=int, default=6)
    ap.add_argument("--mode", choices=["strict", "loosened"], default="strict")
    a = ap.parse_args()
    r = random.Random(11)
    schemas = SCHEMAS + [schema(r) for _ in range(a.n)]
    driver = Driver([a.driver, a.model, a.mode, str(a.samples)])
    passed = failed = empty = 0
    refused = collections.Counter()
    for s in schemas:
        result = driver.ask(text(s))
        if "error" in result:
            refused[result["error"].rpartition("/")[2]] += 1
            continue
        bad = [result["ended"]] if "ended" in result else []
        validator, names = Draft202012Validator(s, validate_formats=True), {}
        collect(s, {}, names)
        for sample in result.get("samples", []):
            try:
                is_valid = validator.is_valid(exact(sample))
            except Doubled as e:  # a grammar remembers declared names only
                is_valid = e.name not in names
            except ValueError:
                is_valid = False
            passed += is_valid
            if not is_valid:
                bad.append(sample)
        empty += not result.get("samples")
        failed += len(bad) + result.get("dead", 0)
        if bad or result.get("dead"):
            print("schema", text(s)[:300], "\n  invalid:", bad[:3], "dead ends:", result.get("dead"))
    driver.close()
    print(f"{len(schemas)} schemas, {sum(refused.values())} refused, {empty} without a finished sample")
    for why, n in refused.most_common(12):
        print(f"  {n:4d}  {why}")
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
