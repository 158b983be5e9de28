#!/usr/bin/env python3
"""Schemas of the world with instances (../shared/maskbench) through the grammars, and beside llguidance.

usage: maskbench.py DRIVER MODEL [--sample K] [--mode strict|loosened|both] [--rival] [--check] ...
DRIVER is build/maskbench, MODEL a file with the real vocabulary (tests/data/vocab.g4). Of each schema is counted
  compile error       it is refused
  validation error    a valid instance cannot be written
  invalidation error  an invalid instance can
  crash, timeout      the process ended; 5 s of the processor or 1 GB were not enough
  passing             none of these
Mask: from the state behind a token to 262,144 bits in memory of one's own, processor time of the thread without what asking for
it costs, over the tokens of valid instances, the first of a schema left out. First: from the schema's text to the first mask. Nothing is counted where
../shared is absent. --rival needs llguidance and tokenizers, and ../shared/gemma4-tokenizer.
"""
import argparse
import collections
import json
import lzma
import os
import signal
import sys
import tarfile
import threading
import time

from schemas import ROOT, Driver, ordered, text

SHARED = os.path.join(ROOT, "..", "shared")
CASES = os.path.join(SHARED, "maskbench", "cases.tar.xz")
TOKENIZER = os.path.join(SHARED, "gemma4-tokenizer", "tokenizer.json.xz")
KINDS = ["passing", "compile error", "validation error", "invalidation error", "crash", "timeout"]


# ---- Cases -----------------------------------------------------------------------------------------

def read_cases(args):
    """[(name, line for a driver, [is the instance valid])]"""
    cases = []
    with tarfile.open(CASES) as tar:
        for i, member in enumerate(sorted((m for m in tar if m.isfile() and m.name.endswith(".json")), key=lambda m: m.name)):
            name = os.path.basename(member.name)[:-5]
            if args.case and name not in args.case or not args.case and i % args.sample != args.offset:
                continue
            case = json.load(tar.extractfile(member))
            fields = [text(case["schema"])]
            fields += ["-+"[t["valid"]] + text(ordered(case["schema"], t["data"])) for t in case["tests"]]
            cases.append((name, "\t".join(fields), [t["valid"] for t in case["tests"]]))
    return cases


# ---- Counts ---------------------------------------------------------------------------------------

def judge(result, valid):
    """(kind, reason)"""
    if "ended" in result:
        return ("timeout" if result["is_timeout"] else "crash"), result["ended"]
    if "error" in result:
        return ("timeout" if result.get("code") == "G4_ERR_MEMORY" else "compile error"), result["error"]
    for i, test in enumerate(result["tests"]):
        if test.get("disagrees"):
            return "crash", f"instance {i}: mask and reading disagree at token {test['read']}"
        if "failed" in test:
            return "crash", f"instance {i}: {test['failed']}"
    for i, (test, is_valid) in enumerate(zip(result["tests"], valid, strict=True)):
        if bool(test["end"]) != is_valid:
            return ("validation error" if is_valid else "invalidation error"), f"instance {i}, token {test['read']} of {test['n']}"
    return "passing", ""


# ---- Figures -------------------------------------------------------------------------------------------

def quantile(ordered, q):
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")


class Figures:
    def __init__(self, name):
        self.name, self.kinds, self.n = name, collections.Counter(), 0
        self.masks, self.reading, self.firsts, self.compiles, self.peaks = [], 0, [], [], []
        self.warned = self.worst_mask = self.worst_first = 0
        self.worst_mask_at = self.worst_first_at = self.worst_peak_at = ""

    def count(self, kind):
        self.kinds[kind] += 1
        self.n += 1

    def time(self, name, result, valid):
        self.warned += bool(result.get("warnings"))
        self.compiles.append(result["compile"] * 1e3)
        if result["first"]:
            self.firsts.append(result["first"] * 1e3)
            if self.firsts[-1] > self.worst_first:
                self.worst_first, self.worst_first_at = self.firsts[-1], name
        if not self.peaks or result["peak"] > max(self.peaks):
            self.worst_peak_at = name
        self.peaks.append(result["peak"])
        for i, (test, is_valid) in enumerate(zip(result["tests"], valid, strict=True)):
            if not is_valid:
                continue
            masks = [ns / 1e3 for ns in test["masks"][i == 0:]]
            self.masks += masks
            self.reading += test["reading"] / 1e3
            if masks and max(masks) > self.worst_mask:
                self.worst_mask, self.worst_mask_at = max(masks), name

    def print_counts(self):
        parts = [f"{k} {self.kinds[k]} ({100 * self.kinds[k] / max(1, self.n):.1f} %)" for k in KINDS]
        print(f"{self.name}: {self.n} schemas: " + ", ".join(parts) + (f"; loosened {self.warned}" if self.warned else ""))

    def print_times(self):
        masks, firsts, compiles = sorted(self.masks), sorted(self.firsts), sorted(self.compiles)
        if not masks or not firsts:
            return
        print(f"  mask, us: average {sum(masks) / len(masks):.1f}, p50 {quantile(masks, .5):.1f}, p90 {quantile(masks, .9):.1f}, "
              f"p99 {quantile(masks, .99):.0f}, p99.9 {quantile(masks, .999):.0f}, max {masks[-1]:.0f} ({self.worst_mask_at}); "
              f"{len(masks)} masks; reading a token {self.reading / len(masks):.2f}")
        print(f"  schema to first mask, ms: average {sum(firsts) / len(firsts):.2f}, p50 {quantile(firsts, .5):.2f}, "
              f"p90 {quantile(firsts, .9):.2f}, p99 {quantile(firsts, .99):.1f}, max {firsts[-1]:.0f} ({self.worst_first_at}); "
              f"of it to compile: p50 {quantile(compiles, .5):.2f}")
        if max(self.peaks) > 0:
            print(f"  memory peak of a schema, MB: p50 {quantile(sorted(self.peaks), .5) / 1e6:.1f}, "
                  f"p99 {quantile(sorted(self.peaks), .99) / 1e6:.1f}, max {max(self.peaks) / 1e6:.1f} ({self.worst_peak_at})")


def reason_of(message):
    """What is refused, without the place."""
    place, _, what = message.partition(": ")
    return f"{place.rpartition('/')[2]}: {what}" if place.startswith("schema #") else message


def work(cases, drivers, answers, lock, args):
    while True:
        with lock:
            if not cases:
                break
            name, line, valid = cases.pop()
        answers[name] = [(d.ask(line), valid) for d in drivers]
        if args.verbose:
            print(name, *(judge(*x) for x in answers[name]), flush=True)
    for d in drivers:
        d.close()


def run(cases, commands, args):
    """{name: [(result, valid) of each command]}"""
    answers, lock, todo = {}, threading.Lock(), cases[::-1]
    teams = [[Driver(c, begins=True) for _, c in commands] for _ in range(args.jobs)]
    threads = [threading.Thread(target=work, args=(todo, team, answers, lock, args)) for team in teams]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for (name, _), d in zip(commands, teams[0], strict=True):
        print(f"{name}: the vocabulary was prepared in {1e3 * d.first['prepared']:.0f} ms")
    return answers


def report(cases, commands, answers, args):
    everything = [Figures(name) for name, _ in commands]
    for i, figures in enumerate(everything):
        reasons, listed = collections.defaultdict(list), collections.Counter()
        for name, _, valid in cases:
            result = answers[name][i][0]
            kind, reason = judge(result, valid)
            figures.count(kind)
            reasons[kind, reason_of(reason) if kind == "compile error" else ""].append((name, reason))
            if "first" in result:
                figures.time(name, result, valid)
        figures.print_counts()
        figures.print_times()
        for (kind, reason), names in sorted(reasons.items(), key=lambda x: -len(x[1])):
            if kind == "compile error" and listed[kind] < args.top:
                print(f"  {len(names):5d}  {reason}  ({names[0][0]})")
            elif kind not in ("passing", "compile error"):
                for name, why in names[:args.top]:
                    print(f"  {kind}: {name}: {why}")
            listed[kind] += 1
        if args.list is not None:
            for (kind, reason), names in reasons.items():
                for name, why in names:
                    if args.list in kind or args.list in why:
                        print(f"{kind}\t{name}\t{why}")
        if args.write:
            with open(f"{args.write}.{figures.name}", "w", encoding="utf-8") as f:
                for (kind, reason), names in sorted(reasons.items()):
                    f.writelines(f"{kind}\t{name}\t{why}\n" for name, why in sorted(names))
    if len(commands) > 1 and args.rival:
        print("on the schemas that both compile:")
        both = [Figures(name) for name, _ in commands]
        for name, _, valid in cases:
            if all("first" in result for result, _ in answers[name]):
                for figures, (result, _) in zip(both, answers[name], strict=True):
                    figures.count(judge(result, valid)[0])
                    figures.time(name, result, valid)
        for figures in both:
            figures.print_counts()
            figures.print_times()
    return everything


# ---- llguidance as a driver -----------------------------------------------------------------------------

def rival(how):
    import llguidance
    import llguidance.numpy
    import tokenizers
    from llguidance import LLMatcher, LLTokenizer
    with lzma.open(TOKENIZER) as f:
        source = f.read().decode()
    encoder = tokenizers.Tokenizer.from_str(source)
    vocabulary = LLTokenizer(source)
    bitmask = llguidance.numpy.allocate_token_bitmask(1, vocabulary.vocab_size)
    row = bitmask[0].view("uint32")
    fill, clock = llguidance.numpy.fill_next_token_bitmask, time.thread_time_ns
    clock_cost = min(-clock() + clock() for _ in range(1000))

    def case(schema, fields):
        start = clock()
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides={"lenient": True} if how == "lenient" else None)
        except ValueError as e:
            return {"error": str(e).split("\n")[0]}
        matcher = LLMatcher(vocabulary, grammar, log_level=0)
        compiled, first = clock(), None
        if matcher.is_error():
            return {"error": matcher.get_error().split("\n")[0]}
        tests = []
        for field in fields:
            ids = encoder.encode(field[1:], add_special_tokens=False).ids
            masks, reading, read, end = [], 0, 0, False
            matcher.reset()
            for i in range(len(ids) + 1):
                before = clock()
                fill(matcher, bitmask, 0)
                after = clock()
                masks.append(max(0, after - before - clock_cost))
                first = after if first is None else first
                if i == len(ids):
                    end = matcher.is_accepting()
                    break
                if matcher.is_error() or not row[ids[i] >> 5] >> (ids[i] & 31) & 1:
                    break
                before = clock()
                fits = matcher.consume_token(ids[i])
                reading += clock() - before
                if not fits:
                    break
                read += 1
            test = {"n": len(ids), "read": read, "end": int(end), "reading": reading, "masks": masks}
            if matcher.is_error() and field[0] == "+":
                test["failed"] = matcher.get_error().split("\n")[0]
            tests.append(test)
        return {"warnings": [], "compile": (compiled - start) / 1e9, "first": ((first or compiled) - start) / 1e9, "peak": 0,
                "tests": tests}

    start = clock()
    case('{"const": 1}', ["+1"])
    print(json.dumps({"prepared": (clock() - start) / 1e9}), flush=True)
    for line in sys.stdin:
        schema, *fields = line.rstrip("\n").split("\t")
        signal.setitimer(signal.ITIMER_PROF, 60)
        print(json.dumps(case(schema, fields)), flush=True)
        signal.setitimer(signal.ITIMER_PROF, 0)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("driver")
    ap.add_argument("model")
    ap.add_argument("--sample", type=int, default=1, help="every K-th schema")
    ap.add_argument("--offset", type=int, default=0, help="from which on")
    ap.add_argument("--case", action="append", help="this schema (several times: these)")
    ap.add_argument("--mode", choices=["strict", "loosened", "both"], default="both")
    ap.add_argument("--rival", action="store_true", help="llguidance beside it")
    ap.add_argument("--list", metavar="REASON", help="the schemas whose kind or reason contains this")
    ap.add_argument("--write", metavar="FILE", help="kind, name and reason of each into FILE.strict, FILE.loosened")
    ap.add_argument("--top", type=int, default=12, help="so many reasons")
    ap.add_argument("--jobs", type=int, default=1)
    ap.add_argument("--verbose", action="store_true")
    ap.add_argument("--check", action="store_true", help="a test: what passed and failed, by the bounds below")
    args = ap.parse_args()
    if args.driver == "rival":
        return rival(args.model)
    if not os.path.exists(CASES):
        print("skipped: ../shared/maskbench is not there\n0 passed, 0 failed, 1 skipped")
        return 0
    cases = read_cases(args)
    modes = ["strict", "loosened"] if args.mode == "both" else [args.mode]
    commands = [(m, [args.driver, args.model, m]) for m in modes]
    if args.rival:
        commands.append(("llguidance", [sys.executable, os.path.abspath(__file__), "rival", "lenient" if args.mode == "loosened" else "strict"]))
    figures = report(cases, commands, run(cases, commands, args), args)
    if not args.check:
        return 0
    failed = 0
    for f in figures:
        bounds = {"strict": (0.85, 0.0), "loosened": (0.95, 0.01)}.get(f.name)
        if bounds is None:
            continue
        faults = [f"{k}: {f.kinds[k]}" for k in ("crash", "timeout") if f.kinds[k] > 0]
        if f.kinds["passing"] < bounds[0] * f.n:
            faults.append("too few pass")
        if f.kinds["invalidation error"] > bounds[1] * f.n:
            faults.append("too much is let through")
        failed += len(faults)
        for fault in faults:
            print(f"failed: {f.name}: {fault}")
    print(f"{sum(f.kinds['passing'] for f in figures)} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
