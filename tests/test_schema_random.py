#!/usr/bin/env python3
"""Random schemas of all keywords against the jsonschema-rs package, strict and loosened.

usage: test_schema_random.py DRIVER MODEL [--n N] [--seed S] [--values N] [--walks N]
DRIVER is build/schema_lines, MODEL a file with a vocabulary, best one of short tokens. Of each schema that compiles the N smallest
values over its own names and constants are accepted where they are valid, and walks through the masks give what is valid. What
was loosened with a warning may accept more. A failure is shown with the smallest schema that still fails.
"""
import argparse
import collections
import copy
import decimal
import random
import sys

import jsonschema_rs

from schemas import Doubled, Driver, exact, ordered, text
from test_schema_exact import build, collect, is_valid, tame, values, write

NAMES = ["a", "b", "ab"]
PATTERNS = ["^a+b?$", "a", "^(ab|b){2,3}$", "^\\S+$", "^.{2}$", "(?=a).", "^(?!a)", "[^a]$", "^\\d+$", "(a*)*b", "", "^a", "b$"]
VALUES = [None, True, False, 0, 1, -3, 2.5, 100.0, "", "a", "ab", "é", "\n", [], {}, [1], {"a": 1}, [None, "a"]]
TYPES = ["null", "boolean", "integer", "number", "string", "array", "object"]
COUNTS = ["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains"]
NUMBERS = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]
BELOW = ["items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else", "unevaluatedItems", "unevaluatedProperties"]


def pattern(r, depth=0, looks=None):
    """A random regular expression. jsonschema-rs takes \\w and \\b for those of Unicode where there is lookaround: never both."""
    looks = r.random() < 0.4 if looks is None else looks
    atoms = ["a", "b", "a", "b", ".", "[ab]", "[^a]", "\\d", "\\S", "\\D", "[^\\s]", "-", "é", "\\u0061", "\\p{L}", "\\P{Lu}"] + ["\\w", "\\W"] * (not looks)
    parts = []
    for _ in range(r.choice([1, 1, 2, 2, 3])):
        kind = r.random()
        if kind < 0.55 or depth > 2:
            part = r.choice(atoms)
        elif kind < 0.8 or kind >= 0.9 and not looks:
            part = r.choice(["(", "(?:", "(?:"]) + pattern(r, depth + 1, looks) + ")"
        elif kind < 0.9:
            parts.append(r.choice(["^", "$"]))
            continue
        else:
            parts.append(r.choice(["(?=", "(?!", "(?<=", "(?<!"]) + pattern(r, depth + 1, looks) + ")")
            continue
        parts.append(part + r.choice(["", "", "", "", "*", "+", "?", "{2}", "{1,3}", "{2,}", "*?", "+?"]))
    begin, end = ("^" if depth == 0 and r.random() < 0.5 else ""), ("$" if depth == 0 and r.random() < 0.5 else "")
    return begin + "".join(parts) + ("|" + pattern(r, depth + 1, looks) if r.random() < 0.2 else "") + end


def make(r, depth=0):
    """A random schema."""
    if depth > 0 and r.random() < 0.08:
        return r.random() < 0.6
    s = {}
    if r.random() < 0.5:
        s["type"] = r.choice(TYPES) if r.random() < 0.8 else r.sample(TYPES, 2)
    for _ in range(r.choice([0, 1, 1, 2, 2, 3, 4])):
        kind = r.randrange(15)
        if kind < 3 and depth < 3:
            s[r.choice(BELOW)] = make(r, depth + 1)
        elif kind == 3 and depth < 3:
            s[r.choice(["allOf", "anyOf", "oneOf", "prefixItems"])] = [make(r, depth + 1) for _ in range(r.randint(1, 3))]
        elif kind == 4 and depth < 3:
            s["properties"] = {k: make(r, depth + 1) for k in r.sample(NAMES, r.randint(1, 3))}
        elif kind == 5 and depth < 3:
            if r.random() < 0.6:
                s["patternProperties"] = {k: make(r, depth + 1) for k in r.sample(["^a", "b", "^.$", "", "[^a]$"], r.randint(1, 2))}
            else:
                s["dependentSchemas"] = {k: make(r, depth + 1) for k in r.sample(NAMES, 1)}
        elif kind == 6:
            s["enum"] = r.sample(VALUES, r.randint(1, 5))
        elif kind == 7:
            s["const"] = r.choice(VALUES)
        elif kind == 8:
            key = r.choice(NUMBERS)
            s[key] = r.choice([1, 2, 3, 0.5, 2.5, 7, 0.01, 40] if key == "multipleOf" else [0, 1, 2, -5, 0.5, 7, -0.75, 40, 1e3])
        elif kind == 9:
            s[r.choice(COUNTS)] = r.randrange(4)
        elif kind == 10:
            s["pattern"] = r.choice(PATTERNS) if r.random() < 0.5 else pattern(r)
        elif kind == 11:
            s["required"] = r.sample(NAMES, r.randint(0, 2))
        elif kind == 12 and depth > 0:
            s["$ref"] = r.choice(["#", "#/$defs/x", "#/$defs/y"])
        elif kind == 13:
            s["uniqueItems"] = True
        elif kind == 14:
            s["dependentRequired"] = {r.choice(NAMES): r.sample(NAMES, r.randint(0, 2))}
    if depth == 0:
        s["$defs"] = {"x": make(r, 2), "y": make(r, 2)}
    return s


def smaller(schema):
    """The schemas with one thing less."""
    if isinstance(schema, dict):
        for key in schema:
            yield {k: v for k, v in schema.items() if k != key}
        for key, value in schema.items():
            if isinstance(value, (dict, list)):
                for v in smaller(value):
                    yield {**schema, key: v}
            if isinstance(value, dict) and value and key not in ("properties", "patternProperties", "$defs", "dependentSchemas", "dependentRequired", "const"):
                yield {**schema, key: {}}
                yield {**schema, key: True}
        for key in ("allOf", "anyOf", "oneOf"):
            if isinstance(schema.get(key), list) and len(schema[key]) == 1 and isinstance(schema[key][0], dict):
                yield {**{k: v for k, v in schema.items() if k != key}, **schema[key][0]}
    elif isinstance(schema, list):
        for i in range(len(schema)):
            yield schema[:i] + schema[i + 1:]
        for i, value in enumerate(schema):
            if isinstance(value, (dict, list)):
                for v in smaller(value):
                    yield schema[:i] + [v] + schema[i + 1:]


class Judge:
    def __init__(self, args):
        self.args = args
        self.drivers = {m: Driver([args.driver, args.model, m, str(args.walks)], seconds=30) for m in ("strict", "loosened")}
        self.counts = collections.Counter()

    def faults(self, mode, schema):
        """{kind: text}, or None where jsonschema-rs does not take the schema."""
        try:
            validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
        except Exception:  # also the panics of its machinery
            return None
        lines, names = {}, {}
        collect(schema, {}, names)
        for v in values(schema, None, None, self.args.values):
            built = build(v)
            if built is not None:
                line, plain = write(ordered(schema, built))
                lines[line] = lines.get(line, False) or plain
        result = self.drivers[mode].ask("\t".join([text(schema), *lines]))
        if "ended" in result:
            return {result["ended"]: ""}
        if "error" in result:
            self.counts[mode, "refused"] += 1
            nothing = result["error"].endswith("nothing can satisfy it")
            if nothing:
                if '"$ref"' in text(schema):  # a circle means nothing
                    return {}
                valid = [line for line, plain in lines.items() if plain and is_valid(validator, exact(line))]
                return {"missed, as all else": valid[0]} if valid else {}
            return {} if mode == "strict" else {"refused": result["error"]}
        out = {}
        self.counts[mode, "compiled"] += 1
        self.counts[mode, "warned"] += bool(result["warnings"])
        is_loose = bool(result["warnings"])
        if result["dead"]:
            out["dead end"] = ""
        for (line, plain), accepted in zip(lines.items(), result["accepts"], strict=True):
            valid = is_valid(validator, exact(line))
            self.counts[mode, "values"] += 1
            if accepted < 0:
                out.setdefault("mask and reading disagree", line)
            elif valid and not accepted and plain:
                out.setdefault("missed", line)
            elif valid is False and accepted and not is_loose:
                out.setdefault("let through", line)
        for line in result["samples"]:
            self.counts[mode, "walks"] += 1
            try:
                value = exact(line)
                ok = is_loose or not tame(value) or is_valid(validator, value) is not False
            except Doubled as e:
                ok = e.name not in names
            except (ValueError, decimal.InvalidOperation):
                ok = False
            if not ok:
                out.setdefault("walk is not valid", line)
        return out

    def shrink(self, mode, schema, kind):
        progress = True
        while progress:
            progress = False
            for s in smaller(schema):
                found = self.faults(mode, copy.deepcopy(s))
                if found and kind in found:
                    schema, progress = s, True
                    break
        return schema, self.faults(mode, schema).get(kind, "")


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("driver")
    ap.add_argument("model")
    ap.add_argument("--n", type=int, default=300)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--values", type=int, default=400)
    ap.add_argument("--walks", type=int, default=20)
    ap.add_argument("--patterns", action="store_true", help="schemas of one pattern each")
    ap.add_argument("--mode", choices=["strict", "loosened", "both"], default="both")
    ap.add_argument("--list", type=int, default=12, help="so many failures are shown")
    args = ap.parse_args()
    sys.set_int_max_str_digits(0)
    judge, passed, failed, shown = Judge(args), 0, 0, set()
    for i in range(args.n):
        r = random.Random(args.seed * 1000003 + i)
        schema = {"type": "string", "pattern": pattern(r)} if args.patterns else make(r)
        for mode in ("strict", "loosened") if args.mode == "both" else (args.mode,):
            found = judge.faults(mode, schema)
            passed += found == {}
            failed += bool(found)
            for kind in found or ():
                if len(shown) < args.list:
                    small, line = judge.shrink(mode, schema, kind)
                    if (kind, text(small)) not in shown:
                        shown.add((kind, text(small)))
                        print(f"{mode}, number {i}: {kind}: {text(small)}  {line}", flush=True)
    for d in judge.drivers.values():
        d.close()
    print(", ".join(f"{mode} {what} {n}" for (mode, what), n in sorted(judge.counts.items())))
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
