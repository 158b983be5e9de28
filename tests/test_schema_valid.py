#!/usr/bin/env python3
"""Constrained output against the jsonschema package: what is written under a schema is valid, and nothing invalid could be written.

usage: test_schema_valid.py DRIVER VOCAB [--suite DIR] [--n N] [--samples K]
DRIVER is build/schema_lines. Schemas: those below, N random ones, and with --suite the official JSON-Schema-Test-Suite (the folder
json/tests/draft2020-12 of jsonschema's source package). A schema with a keyword that the compiler refuses is counted, not failed.
"""
import argparse
import collections
import glob
import json
import os
import random
import subprocess
import sys

from jsonschema import Draft202012Validator

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
    ap.add_argument("vocab")
    ap.add_argument("--suite")
    ap.add_argument("--n", type=int, default=300)
    ap.add_argument("--samples", type=int, default=6)
    a = ap.parse_args()
    r = random.Random(11)
    cases = [(s, []) for s in SCHEMAS] + [(schema(r), []) for _ in range(a.n)]
    for path in sorted(glob.glob(os.path.join(a.suite, "*.json"))) if a.suite else []:
        with open(path, encoding="utf-8") as f:
            for group in json.load(f):
                cases.append((group["schema"], [(t["data"], t["valid"]) for t in group["tests"]]))
    lines = ["\t".join([json.dumps(s)] + [json.dumps(d, ensure_ascii=False) for d, _ in tests]) for s, tests in cases]
    run = subprocess.run([a.driver, a.vocab, str(a.samples)], input=("\n".join(lines) + "\n").encode(), stdout=subprocess.PIPE, check=True)
    results = [json.loads(x) for x in run.stdout.decode().split("\n")[:-1]]
    passed = failed = empty = samples = 0
    refused = collections.Counter()
    could = collections.Counter()
    for (s, tests), res in zip(cases, results, strict=True):
        if "error" in res:
            refused[res["error"].split(": ", 1)[1] + " (" + res["error"].split(": ")[0].split("/")[-1] + ")"] += 1
            continue
        try:
            v = Draft202012Validator(s)
            bad = [t for t in res["samples"] if not v.is_valid(json.loads(t))]
        except Exception as e:
            print("validator:", type(e).__name__, json.dumps(s)[:200])
            continue
        samples += len(res["samples"])
        empty += not res["samples"]
        for (data, valid), accepts in zip(tests, res["accepts"], strict=True):
            could[bool(accepts), valid] += 1
            if accepts and not valid:
                bad.append(json.dumps(data))
        passed += len(res["samples"]) + len(tests) - len(bad)
        failed += len(bad) + res["dead"]
        if bad or res["dead"]:
            print("schema", json.dumps(s)[:300], "\n  invalid:", bad[:3], "dead ends:", res["dead"])
    print(f"{len(cases)} schemas, {sum(refused.values())} refused, {samples} samples, {empty} schemas without a finished sample")
    if a.suite:
        print(f"suite: of the valid instances {could[True, True]} could be written, {could[False, True]} not; of the invalid {could[True, False]}")
    for why, n in refused.most_common(12):
        print(f"  {n:4d}  {why}")
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
