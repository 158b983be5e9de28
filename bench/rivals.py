#!/usr/bin/env python3
"""Measure gemma4.c beside llama.cpp: the same weights, the same machine, runs that alternate.

    python3 bench/rivals.py --cache ~/.cache/gemma4-bench

Builds llama.cpp from the source package of llama-cpp-python in the cache folder (outside this tree), writes full-size models with
random weights there (bench/random_gguf.py, then export.py: both engines read the same blocks), reads the memory bandwidth with
bench/bandwidth.c, runs both programs in turn and prints medians, ratios and every command.

On a machine that others use too, wall-clock rates say little. --cpu-time runs one thread and counts the CPU seconds of the process
instead: what a core of its own would give."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PACKAGE = "llama-cpp-python==0.3.36"


def say(*what):
    print(*what, file=sys.stderr, flush=True)


def run(command, **kw):
    say("+", " ".join(str(c) for c in command))
    return subprocess.run([str(c) for c in command], check=True, **kw)


def timed(command):
    """(stdout, wall seconds, CPU seconds) of a program."""
    start, before = time.monotonic(), os.times()
    out = subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return out, time.monotonic() - start, cpu


def build_llama(cache, jobs):
    exe = cache / "build" / "bin" / "llama-bench"
    if exe.exists():
        return exe
    if not list(cache.glob("llama_cpp_python-*.tar.gz")):
        run([sys.executable, "-m", "pip", "download", "-q", "--no-binary", ":all:", "--no-deps", "-d", cache, PACKAGE])
    archive = sorted(cache.glob("llama_cpp_python-*.tar.gz"))[-1]
    run(["tar", "xzf", archive, "-C", cache])
    source = cache / archive.name[:-len(".tar.gz")] / "vendor" / "llama.cpp"
    run(["cmake", "-S", source, "-B", cache / "build", "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF",
         "-DLLAMA_OPENSSL=OFF", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF"], stdout=subprocess.DEVNULL)
    run(["cmake", "--build", cache / "build", "--target", "llama-bench", "-j", str(jobs)], stdout=subprocess.DEVNULL)
    return exe


def make_model(cache, spec):
    """shape:type or shape:type:layers -> (GGUF, g4) with the same weights."""
    shape, kind, layers = (spec.split(":") + ["0"])[:3]
    stem = cache / f"{shape}-{kind}{'-' + layers if layers != '0' else ''}"
    gguf, g4 = stem.with_suffix(".gguf"), stem.with_suffix(".g4")
    if not gguf.exists():
        run([sys.executable, HERE / "random_gguf.py", shape, kind, gguf, "--layers", layers])
    if not g4.exists():
        run([sys.executable, ROOT / "export.py", gguf, "-o", g4, "--type", kind, "--ple-type", kind, "--quiet"])
    return gguf, g4


def llama_rate(exe, gguf, threads, n_prompt, n_decode, depth, cpu_time):
    command = [exe, "-m", gguf, "-t", threads, "-p", n_prompt, "-n", n_decode, "-d", depth, "-r", 1, "-o", "json"]
    if cpu_time:
        command.append("--no-warmup")
    out, _, cpu = timed(command)
    rate = json.loads(out)[0]["avg_ts"]
    return ((n_prompt or n_decode) / cpu if cpu_time else rate), command


def our_rates(exe, g4, threads, length, n_decode, cpu_time):
    """(prefill, decode) tokens/s; with cpu_time prefill only, one decoded token included."""
    command = [exe, "bench", "-m", g4, "-t", threads, "--lengths", length, "-n", 1 if cpu_time else n_decode, "--repeat", 1, "--json"]
    out, _, cpu = timed(command)
    r = json.loads(out)
    one = r["runs"][0]
    if cpu_time:
        return length / cpu, None, r, command
    return one["prefill_tokens_per_second"], one["decode_tokens_per_second"], r, command


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--cache", required=True, type=Path, help="folder for llama.cpp and the models, outside the tree (10 GB)")
    p.add_argument("--models", default="e2b:q4_0", help="shape:type[:layers], comma separated; 26b:q4_0:10 for example")
    p.add_argument("--prompts", default="512", help="prompt lengths")
    p.add_argument("--depths", default="128", help="context before the generated tokens")
    p.add_argument("-n", type=int, default=32, help="generated tokens")
    p.add_argument("-t", type=int, default=os.cpu_count(), help="threads")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--jobs", type=int, default=1, help="of the build of llama.cpp")
    p.add_argument("--cpu-time", action="store_true", help="one thread, tokens per CPU second; prefill only")
    a = p.parse_args()
    a.cache.mkdir(parents=True, exist_ok=True)
    threads = 1 if a.cpu_time else a.t
    llama, ours, bandwidth = build_llama(a.cache, a.jobs), ROOT / "gemma4", a.cache / "bandwidth"
    run(["make", "-s", "-C", ROOT, "all"])
    run([os.environ.get("CC", "cc"), "-O3", "-std=c11", "-pthread", HERE / "bandwidth.c", "-o", bandwidth])
    commands, rows, reads = [], [], []
    for spec in a.models.split(","):
        gguf, g4 = make_model(a.cache, spec)
        tests = [(int(n), None) for n in a.prompts.split(",") if n] + [(None, int(d)) for d in a.depths.split(",") if d and not a.cpu_time]
        for prompt, depth in tests:
            theirs, mine, gbs = [], [], []
            for round_ in range(a.rounds):
                reads.append(float(timed([bandwidth, threads])[0].split()[0]))
                rate, c1 = llama_rate(llama, gguf, threads, prompt or 0, 0 if prompt else a.n, depth or 0, a.cpu_time)
                theirs.append(rate)
                pre, dec, info, c2 = our_rates(ours, g4, threads, prompt or depth, a.n, a.cpu_time)
                mine.append(pre if prompt else dec)
                gbs.append(info["decode_bytes"] * 1e-9 * mine[-1] if depth else 0)
                say(f"  {spec} {'prefill ' + str(prompt) if prompt else 'decode at ' + str(depth)}: {theirs[-1]:.2f} {mine[-1]:.2f}")
                if round_ == 0:
                    commands += [c1, c2]
            med, own = statistics.median(theirs), statistics.median(mine)
            share = f"{100 * statistics.median(gbs) / max(reads):.0f} %" if depth else ""
            what = f"prefill {prompt}" if prompt else f"decode at {depth}"
            rows.append(f"| {spec} | {what} | {med:.2f} | {own:.2f} | {own / med:.2f} | {share} |")
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    print(f"{cpu}, {threads} threads, {info['isa']}, read bandwidth {max(reads):.1f} GB/s (best of {len(reads)} runs of bench/bandwidth.c), "
          f"median of {a.rounds} rounds, tokens per {'CPU second' if a.cpu_time else 'second'}, load {os.getloadavg()[0]:.1f}\n")
    print("| model | test | llama.cpp | gemma4.c | ratio | share of bandwidth |\n|---|---|---|---|---|---|")
    print("\n".join(rows) + "\n\nCommands:\n")
    for c in commands:
        print("   ", " ".join(str(x).replace(str(a.cache), "$CACHE").replace(str(ROOT), ".") for x in c))


if __name__ == "__main__":
    main()
