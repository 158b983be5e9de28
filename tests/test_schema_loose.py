#!/usr/bin/env python3
"""Does loosening shut nothing out? Random schemas, many beyond the limits, against the jsonschema-rs package.

usage: test_schema_loose.py DRIVER MODEL [--schemas N] [--seed N]
DRIVER is build/schema_lines, MODEL a file with a vocabulary. Of each schema, every random object that jsonschema-rs accepts must be
accepted in some order of its members, whatever was loosened. How many schemas were is said at the end.
"""
import argparse
import itertools
import json
import random
import sys

import jsonschema_rs

from schemas import Driver

NAMES = ["a", "b", "c", "d", "e", "f", "g", "h", "x1", "x2", "y1", "y2"]
CONSTANTS = [0, 1, 2, "u", "v", "w", None, True, [1], {"a": 1}]
MAX_ORDERS = 120  # of the members of a value that are tried
MAX_VALUES = 25   # of a schema


def leaf(r):
    return r.choice([{"const": r.choice(CONSTANTS)}, {"enum": r.sample(CONSTANTS, 3)}, {"minimum": r.choice([0, 1])}, {}, True,
                     {"type": r.choice(["integer", "string", "null", "object"])}, {"not": {"const": r.choice(CONSTANTS)}}])


def object_schema(r, depth):
    """Each keyword of objects with a chance of its own."""
    some = {
        "type": (0.5, lambda: "object"),
        "properties": (0.7, lambda: {k: schema(r, depth - 1) for k in r.sample(NAMES, r.randint(1, 4))}),
        "required": (0.4, lambda: r.sample(NAMES, r.randint(1, 2))),
        "patternProperties": (0.15, lambda: {p: leaf(r) for p in r.sample(["^x", "1$", "^[a-c]", "y", "[d-h]", "2"], r.randint(1, 4))}),
        "additionalProperties": (0.15, lambda: r.choice([False, {"type": "integer"}])),
        "unevaluatedProperties": (0.25, lambda: r.choice([False, {"type": "string"}])),
        "minProperties": (0.1, lambda: r.randint(1, 3)),
        "maxProperties": (0.1, lambda: r.randint(1, 4)),
        "propertyNames": (0.1, lambda: {"pattern": r.choice(["^[a-h]", "1", "^.$"])}),
        "dependentRequired": (0.15, lambda: {k: r.sample(NAMES, 1) for k in r.sample(NAMES, 2)}),
        "dependentSchemas": (0.1, lambda: {k: object_schema(r, 0) for k in r.sample(NAMES, 2)}),
    }
    return {keyword: make() for keyword, (chance, make) in some.items() if r.random() < chance}


def cases(r):
    """Ifs on the constants of one member."""
    name, required = r.choice(NAMES), r.random() < 0.5
    condition = {"required": [name]} if required else {}
    return [{"if": {"properties": {name: {"const": c}}, **condition}, "then": object_schema(r, 0)}
            for c in r.sample([c for c in CONSTANTS if not isinstance(c, (list, dict))], r.randint(3, 6))]


def schema(r, depth):
    if depth <= 0:
        return leaf(r)
    s = object_schema(r, depth - 1)
    more = leaf(r)
    if r.random() < 0.4 and isinstance(more, dict):
        s.update(more)
    for keyword, most in (("anyOf", 8), ("oneOf", 5), ("allOf", 5)):
        if r.random() < 0.3:
            s[keyword] = [object_schema(r, depth - 1) if r.random() < 0.7 else schema(r, depth - 1) for _ in range(r.randint(1, most))]
    for keyword, chance in (("not", 0.25), ("if", 0.25), ("then", 0.2), ("else", 0.15)):
        if r.random() < chance:
            s[keyword] = object_schema(r, depth - 1)
    if r.random() < 0.2:
        s["allOf"] = s.get("allOf", []) + cases(r)
    return s


def check(r, driver, s):
    """Returns whether the schema was loosened, how many values were tried, and the first that was shut out, if any."""
    validator = jsonschema_rs.validator_for(s)
    values = [{k: r.choice(CONSTANTS) for k in r.sample(NAMES, r.randint(0, 5))} for _ in range(60)]
    values = [v for v in values if validator.is_valid(v)][:MAX_VALUES]
    lines = []
    for number, value in enumerate(values):
        orders = list(itertools.permutations(value.items()))
        r.shuffle(orders)
        lines += [(number, json.dumps(dict(order))) for order in orders[:MAX_ORDERS]]
    if not values:
        return False, 0, None
    result = driver.ask("\t".join([json.dumps(s)] + [line for _, line in lines]))
    if "accepts" not in result:
        return False, len(values), result
    accepted = {number for (number, _), accepts in zip(lines, result["accepts"]) if accepts}
    missing = [v for number, v in enumerate(values) if number not in accepted]
    return bool(result["warnings"]), len(values), missing[0] if missing else None


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("driver")
    ap.add_argument("model")
    ap.add_argument("--schemas", type=int, default=400)
    ap.add_argument("--seed", type=int, default=1)
    args = ap.parse_args()
    r = random.Random(args.seed)
    driver = Driver([args.driver, args.model, "loosened", "0"])
    n_values = n_loosened = failed = 0
    for _ in range(args.schemas):
        s = {"type": "object", **schema(r, 2)}
        loosened, n, missing = check(r, driver, s)
        n_values += n
        n_loosened += loosened
        if missing is not None:
            failed += 1
            print(f"not accepted: {json.dumps(missing)[:300]} of {json.dumps(s)}", flush=True)
    driver.close()
    print(f"{n_values - failed} passed, {failed} failed; of {args.schemas} schemas {n_loosened} were loosened")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
