#!/usr/bin/env python3
"""Constrained output against the official JSON Schema Test Suite: the groups that pass, by keyword.

usage: schema_suite.py DRIVER MODEL SUITE [--list] [--only FILE]
DRIVER is build/schema_lines, SUITE the folder json/tests/draft2020-12 of jsonschema's source package. A group passes when its
schema compiles, each valid instance can be written (keys in the schema's order) and no invalid one can. format, refRemote and
vocabulary of the main files are left out; optional/format is counted apart. Prints the table of docs/structured-output.md.
"""
import argparse
import collections
import glob
import json
import os
import sys

from schemas import Driver, ordered, text

LEFT_OUT = {"format", "refRemote", "vocabulary"}
MODES = ["strict", "loosened"]
LEAST = 250  # groups of the main files that pass in strict


def read_groups(folder):
    """[(file's name, group)]"""
    out = []
    for path in sorted(glob.glob(os.path.join(folder, "*.json"))):
        name = os.path.basename(path)[:-5]
        if name not in LEFT_OUT:
            with open(path, encoding="utf-8") as f:
                out += [(name, group) for group in json.load(f)]
    return out


def judge(driver, group):
    """("passed", "refused", "crashed", "not writable" or "let through", what, is it loosened)"""
    tests = group["tests"]
    result = driver.ask("\t".join([text(group["schema"])] + [text(ordered(group["schema"], t["data"])) for t in tests]))
    if "ended" in result:
        return "crashed", result["ended"], False
    if "error" in result:
        return "refused", result["error"], False
    for wanted, verdict in ((False, "let through"), (True, "not writable")):
        for test, accepts in zip(tests, result["accepts"], strict=True):
            if accepts < 0:
                return "crashed", f"mask and reading disagree: {text(test['data'])}", False
            if test["valid"] == wanted and bool(accepts) != wanted:
                return verdict, text(test["data"]), bool(result["warnings"])
    return "passed", "", bool(result["warnings"])


def count(args, groups):
    """{mode: {file: Counter}}; each group is a row of one of them."""
    counts = {}
    for mode in MODES:
        driver = Driver([args.driver, args.model, mode, "0"], seconds=20)
        counts[mode] = collections.defaultdict(collections.Counter)
        for name, group in groups:
            verdict, what, is_loosened = judge(driver, group)
            counts[mode][name][verdict] += 1
            counts[mode][name]["loosened"] += is_loosened
            counts[mode][name]["quiet"] += verdict == "let through" and not is_loosened
            if args.list and verdict != "passed":
                print(f"{mode}\t{name}\t{verdict}\t{group['description']}\t{what}\t{text(group['schema'])[:200]}")
        driver.close()
    return counts


def print_table(title, groups, counts):
    strict, loosened = (counts[m] for m in MODES)
    names = sorted({name for name, _ in groups})
    of = collections.Counter(name for name, _ in groups)
    print(f"\n| {title} | groups | strict: pass | refused | not writable | let through | loosened: pass | warned | let through |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = [(n, of[n], strict[n], loosened[n]) for n in names]
    rows.append(("**all**", len(groups), sum(strict.values(), collections.Counter()), sum(loosened.values(), collections.Counter())))
    for name, n, s, w in rows:
        print(f"| {name} | {n} | {s['passed']} | {s['refused']} | {s['not writable']} | {s['let through']} | {w['passed']} | "
              f"{w['loosened']} | {w['let through']} |")
    return rows[-1][2], rows[-1][3]


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("driver")
    ap.add_argument("model")
    ap.add_argument("suite")
    ap.add_argument("--list", action="store_true", help="the groups that do not pass")
    ap.add_argument("--only", help="files whose name contains this")
    args = ap.parse_args()
    groups, formats = read_groups(args.suite), read_groups(os.path.join(args.suite, "optional", "format"))
    if args.only:
        groups, formats = ([g for g in x if args.only in g[0]] for x in (groups, formats))
    strict, loosened = print_table("keyword", groups, count(args, groups))
    formats_strict, _ = print_table("optional/format", formats, count(args, formats))
    failed = strict["let through"] + formats_strict["let through"] + strict["crashed"] + loosened["crashed"] + loosened["quiet"]
    failed += strict["passed"] < LEAST and not args.only
    print(f"{strict['passed']} of {len(groups)} groups pass in strict, at least {LEAST} must; invalid let through: {strict['let through']}, "
          f"and {loosened['quiet']} without a warning where it is loosened")
    print(f"{strict['passed'] + formats_strict['passed']} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
