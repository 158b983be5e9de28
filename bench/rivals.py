#!/usr/bin/env python3
"""Measure gemma4.c beside llama.cpp: the same weights, the same machine, runs that alternate.

    python3 bench/rivals.py --cache ~/.cache/gemma4-bench

Builds llama.cpp from the source package of llama-cpp-python in the cache folder (outside this tree), writes full-size models with
random weights there (bench/random_gguf.py, then export.py: both engines read the same blocks), reads the memory bandwidth with
bench/bandwidth.c, runs both programs in turn and prints medians, ratios and every command.

--encoders measures a picture of 768 x 768 and 10 s of sound instead of text: the seconds from pixels or samples to soft tokens, models
open. llama.cpp's are those that llama-mtmd-cli prints, after its warm-up and without resizing and log-mel; ours contain both.

--batched measures N answers at a time, N of --parallel: our bench --parallel beside llama-batched-bench, and what could be reached,
min(N r, G / P), with the rate r of one answer, the multiply-adds/s G of our prefill of 512 and those P of a token, all of the same
rounds.

--ik adds a column for ik_llama.cpp, whose llama-bench you have built (cmake --build build --target llama-bench). It repacks the
weights when it opens the file (-rtr 1).

--huge-pages gives gemma4.c its weights in memory of its own, as llama.cpp (which repacks q4_0 when it opens a file) and ik_llama.cpp
have them; without it they are read where the page cache put the file.

On a machine that others use too, wall-clock rates say little. --cpu-time runs one thread and counts the CPU seconds of the process
instead: what a core of its own would give."""
import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
import wave
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PACKAGE = "llama-cpp-python==0.3.36"
# What llama-quantize is asked for: K types, alone or in its own mixture.
MIXTURES = {"q4_k": ("--pure", "Q4_K_S"), "q4_k_m": ("Q4_K_M",), "q5_k_m": ("Q5_K_M",), "q6_k": ("--pure", "Q6_K")}


def say(*what):
    print(*what, file=sys.stderr, flush=True)


def run(command, **kw):
    say("+", " ".join(str(c) for c in command))
    return subprocess.run([str(c) for c in command], check=True, **kw)


def timed(command, stderr=subprocess.DEVNULL):
    """(stdout, wall seconds, CPU seconds) of a program."""
    start, before = time.monotonic(), os.times()
    out = subprocess.run([str(c) for c in command], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
                         text=True, errors="replace").stdout
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return out, time.monotonic() - start, cpu


def build_llama(cache, jobs, target="llama-bench"):
    """A program of llama.cpp, built unless it is there. Only the package itself is source: pip would build CMake too."""
    exe = cache / "build" / "bin" / target
    if exe.exists():
        return exe
    if not list(cache.glob("llama_cpp_python-*.tar.gz")):
        run([sys.executable, "-m", "pip", "download", "-q", "--no-binary", "llama-cpp-python", "--no-deps", "-d", cache, PACKAGE])
    archive = sorted(cache.glob("llama_cpp_python-*.tar.gz"))[-1]
    source = cache / archive.name[:-len(".tar.gz")] / "vendor" / "llama.cpp"
    if not source.exists():
        run(["tar", "xzf", archive, "-C", cache])
    run(["cmake", "-S", source, "-B", cache / "build", "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF",
         "-DLLAMA_OPENSSL=OFF", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=ON",
         "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF"], stdout=subprocess.DEVNULL)
    run(["cmake", "--build", cache / "build", "--target", target, "-j", str(jobs)], stdout=subprocess.DEVNULL)
    return exe


def forget(*paths):
    """Drop files from the page cache: what is read next comes as after a restart, not in the pages it was written with."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def make_gguf(cache, shape, kind, layers, jobs):
    """A GGUF with random weights of one type, or with those of q8_0 as llama-quantize rounds them to one of MIXTURES."""
    gguf = cache / f"{shape}-{kind}{'-' + layers if layers != '0' else ''}.gguf"
    if not gguf.exists() and kind in MIXTURES:
        source = make_gguf(cache, shape, "q8_0", layers, jobs)
        run([build_llama(cache, jobs, "llama-quantize"), "--allow-requantize", *MIXTURES[kind][:-1], source, gguf, MIXTURES[kind][-1]],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    elif not gguf.exists():
        run([sys.executable, HERE / "random_gguf.py", shape, kind, gguf, "--layers", layers])
    return gguf


def make_model(cache, spec, jobs):
    """shape:type or shape:type:layers -> (GGUF, g4) with the same weights."""
    shape, kind, layers = (spec.split(":") + ["0"])[:3]
    gguf = make_gguf(cache, shape, kind, layers, jobs)
    g4 = gguf.with_suffix(".g4")
    if not g4.exists():
        run([sys.executable, ROOT / "export.py", gguf, "-o", g4, "--quiet"])
    forget(gguf, g4)
    return gguf, g4


def make_towers(cache, shape, kind, towers):
    """(text GGUF, mmproj GGUF, g4 with both) with towers of the type asked for."""
    gguf, mmproj = cache / f"{shape}-{kind}.gguf", cache / f"{shape}-mmproj-{towers}.gguf"
    g4 = cache / f"{shape}-{kind}-towers-{towers}.g4"
    if not gguf.exists():
        run([sys.executable, HERE / "random_gguf.py", shape, kind, gguf])
    if not mmproj.exists():
        run([sys.executable, HERE / "random_gguf.py", shape, towers, mmproj, "--mmproj"])
    if not g4.exists():
        run([sys.executable, ROOT / "export.py", gguf, "--mmproj", mmproj, "-o", g4, "--type", kind, "--ple-type", kind,
             "--vision-type", towers, "--audio-type", towers, "--quiet"])
    forget(gguf, mmproj, g4)
    return gguf, mmproj, g4


def make_media(cache):
    """A picture of 768 x 768 that no encoder resizes, and 10 s of sound."""
    picture, sound = cache / "picture.ppm", cache / "sound.wav"
    rng = random.Random(1)
    picture.write_bytes(b"P6 768 768 255\n" + rng.randbytes(768 * 768 * 3))
    with wave.open(str(sound), "wb") as w:
        w.setnchannels(1)
        w.setsampwidth(2)
        w.setframerate(16000)
        w.writeframes(rng.randbytes(2 * 160000))
    return picture, sound


def llama_encoder(exe, gguf, mmproj, threads, file):
    """(seconds, soft tokens) of one picture or sound. The text model then reads them and answers with one token."""
    command = [exe, "-m", gguf, "--mmproj", mmproj, "--image" if file.suffix == ".ppm" else "--audio", file, "-t", threads, "-c", 2048,
               "-n", 1, "--temp", 0, "--chat-template", "gemma", "--no-jinja", "-lv", 4, "-p", "a"]
    out = timed(command, stderr=subprocess.STDOUT)[0]
    seconds = [int(x) for x in re.findall(r"mtmd batch encoding done in (\d+) ms", out)]
    tokens = [int(x) for x in re.findall(r"decoding \w+ batch \d+/\d+, n_tokens_batch = (\d+)", out)]
    if len(seconds) != 1 or not tokens:
        raise SystemExit(f"{exe} printed no time of its encoder:\n{out[-3000:]}")
    return seconds[0] * 1e-3, sum(tokens), command


def our_encoder(exe, g4, threads, file):
    command = [exe, "encode", "-m", g4, "-t", threads, "--image" if file.suffix == ".ppm" else "--audio", file, "-o", "/dev/null", "--json"]
    r = json.loads(timed(command)[0])
    return r["seconds"], r["tokens"], command


def encoders(a, threads):
    """Rows and commands of both encoders."""
    llama, ours = build_llama(a.cache, a.jobs, "llama-mtmd-cli"), ROOT / "gemma4"
    commands, rows = [], []
    for spec in a.models.split(","):
        shape, kind = spec.split(":")[:2]
        gguf, mmproj, g4 = make_towers(a.cache, shape, kind, a.towers)
        for file, what in zip(make_media(a.cache), ("picture 768 x 768", "10 s of sound")):
            theirs, mine = [], []
            for round_ in range(a.rounds):
                one, n, c1 = llama_encoder(llama, gguf, mmproj, threads, file)
                two, m, c2 = our_encoder(ours, g4, threads, file)
                if n != m:
                    raise SystemExit(f"{what}: {n} soft tokens in llama.cpp, {m} here")
                theirs.append(one)
                mine.append(two)
                say(f"  {what}: {one:.2f} {two:.2f} s")
                if round_ == 0:
                    commands += [c1, c2]
            med, own = statistics.median(theirs), statistics.median(mine)
            rows.append(f"| {shape} towers {a.towers} | {what}, {n} tokens | {med:.2f} | {own:.2f} | {med / own:.2f} |")
    return rows, commands


def cpu_name():
    return next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")


def print_commands(commands, a):
    print("\nCommands:\n")
    for c in commands:
        line = " ".join(str(x) for x in c)
        for folder, name in ((a.ik, "$IK"), (a.cache, "$CACHE"), (ROOT, ".")):
            line = line.replace(str(folder), name) if folder else line
        print("   ", line)


def llama_rate(exe, gguf, threads, n_prompt, n_decode, depth, cpu_time, ik=False):
    command = [exe, "-m", gguf, "-t", threads, "-r", 1, "-o", "json"]
    if ik:  # the same test has other names there
        command += ["-rtr", 1, "-w", int(not cpu_time)] + (["-p", n_prompt, "-n", 0] if n_prompt else ["-p", 0, "-n", 0, "-gp", f"{depth},{n_decode}"])
    else:
        command += ["-p", n_prompt, "-n", n_decode, "-d", depth] + (["--no-warmup"] if cpu_time else [])
    out, _, cpu = timed(command)
    rate = json.loads(out[out.index("["):])[0]["avg_ts"]
    return ((n_prompt or n_decode) / cpu if cpu_time else rate), command


def our_rates(exe, g4, threads, length, n_decode, cpu_time, huge_pages):
    """(prefill, decode) tokens/s; with cpu_time prefill only, one decoded token included. Both rivals run a test once before the run
    they count; the median of three leaves our first run out too."""
    command = [exe, "bench", "-m", g4, "-t", threads, "--lengths", length, "-n", 1 if cpu_time else n_decode,
               "--repeat", 1 if cpu_time else 3, "--json"]
    command += ["--huge-pages"] if huge_pages else []
    out, _, cpu = timed(command)
    r = json.loads(out)
    one = r["runs"][0]
    if cpu_time:
        return length / cpu, None, r, command
    return one["prefill_tokens_per_second"], one["decode_tokens_per_second"], r, command


def llama_together(exe, gguf, threads, n, n_decode, depth):
    command = [exe, "-m", gguf, "-t", threads, "-c", n * (depth + n_decode) + 64, "-npp", depth, "-ntg", n_decode, "-npl", n,
               "--output-format", "jsonl"]
    out = timed(command)[0]
    return json.loads(next(line for line in out.splitlines() if line.startswith("{")))["speed_tg"], command


def our_together(exe, g4, threads, n, n_decode, depth, huge_pages):
    """(bench --json, command) of n answers behind `depth` tokens."""
    command = [exe, "bench", "-m", g4, "-t", threads, "--lengths", depth, "-n", n_decode, "--repeat", 1, "--parallel", n, "--json"]
    command += ["--huge-pages"] if huge_pages else []
    return json.loads(timed(command)[0]), command


def batched(a, threads):
    """Rows and commands of several answers at a time."""
    llama = None if a.alone else build_llama(a.cache, a.jobs, "llama-batched-bench")
    ours, depth = ROOT / "gemma4", int(a.depths.split(",")[0])
    parallel = [1] + [n for n in (int(x) for x in a.parallel.split(",")) if n > 1]
    commands, rows = [], []
    for spec in a.models.split(","):
        gguf, g4 = make_model(a.cache, spec, a.jobs)
        theirs, mine, reads = {n: [] for n in parallel}, {n: [] for n in parallel}, []
        for round_ in range(a.rounds):
            info, command = our_together(ours, g4, threads, 1, 1, 512, a.huge_pages)
            reads.append(info["runs"][0]["prefill_gmul_per_second"])
            commands += [command] if round_ == 0 else []
            for n in parallel:
                if llama:
                    rate, command = llama_together(llama, gguf, threads, n, a.n, depth)
                    theirs[n].append(rate)
                    commands += [command] if round_ == 0 else []
                info, command = our_together(ours, g4, threads, n, a.n, depth, a.huge_pages)
                mine[n].append(info["runs"][0]["decode_tokens_per_second"])
                commands += [command] if round_ == 0 else []
                say(f"  {spec} {n} at a time: {theirs[n][-1] if llama else 0:.2f} {mine[n][-1]:.2f}")
        r, g, p = statistics.median(mine[1]), statistics.median(reads), info["decode_multiply_adds"] * 1e-9
        for n in parallel:
            own, bound = statistics.median(mine[n]), min(n * r, g / p)
            other = statistics.median(theirs[n]) if llama else 0
            beside = f"{other:.2f} | {own / other:.2f}" if llama else " | "
            rows.append(f"| {spec} | {n} | {own:.2f} | {beside} | {r:.2f}, {g:.1f}, {p:.2f} | {bound:.2f} | {100 * own / bound:.0f} % "
                        f"| {n * r / own:.2f} |")
    return rows, commands


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--cache", required=True, type=Path, help="folder for llama.cpp and the models, outside the tree (10 GB)")
    p.add_argument("--models", default="e2b:q4_0", help="shape:type[:layers], comma separated; 26b:q4_k_m:10 for example")
    p.add_argument("--prompts", default="512", help="prompt lengths")
    p.add_argument("--depths", default="128", help="context before the generated tokens")
    p.add_argument("-n", type=int, default=32, help="generated tokens")
    p.add_argument("-t", type=int, default=os.cpu_count(), help="threads")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--jobs", type=int, default=1, help="of the build of llama.cpp")
    p.add_argument("--encoders", action="store_true", help="the vision and audio towers instead of text")
    p.add_argument("--batched", action="store_true", help="several answers at a time instead of one")
    p.add_argument("--parallel", default="4,8,16", help="how many, with --batched")
    p.add_argument("--alone", action="store_true", help="with --batched: without llama.cpp")
    p.add_argument("--towers", default="q8_0", help="type of the towers' matrices")
    p.add_argument("--ik", type=Path, metavar="FOLDER", help="where ik_llama.cpp was built, or its llama-bench")
    p.add_argument("--huge-pages", action="store_true", help="our weights copied into huge pages, not mapped")
    p.add_argument("--cpu-time", action="store_true", help="one thread, tokens per CPU second; prefill only")
    a = p.parse_args()
    a.cache.mkdir(parents=True, exist_ok=True)
    threads = 1 if a.cpu_time else a.t
    run(["make", "-s", "-C", ROOT, "all"])
    if a.encoders:
        rows, commands = encoders(a, threads)
        print(f"{cpu_name()}, {threads} threads, median of {a.rounds} rounds, seconds, load {os.getloadavg()[0]:.1f}\n")
        print("| model | input | llama.cpp | gemma4.c | ratio |\n|---|---|---|---|---|")
        print("\n".join(rows))
        return print_commands(commands, a)
    if a.batched:
        rows, commands = batched(a, threads)
        print(f"{cpu_name()}, {threads} threads, median of {a.rounds} rounds, tokens/s of all answers, load {os.getloadavg()[0]:.1f}\n")
        print("| model | N | gemma4.c | llama.cpp | ratio | r, G, P | min(N r, G / P) | reached | a step, in steps of one |")
        print("|---|---|---|---|---|---|---|---|---|")
        print("\n".join(rows))
        return print_commands(commands, a)
    llama, ours, bandwidth = build_llama(a.cache, a.jobs), ROOT / "gemma4", a.cache / "bandwidth"
    ik = a.ik and (a.ik if a.ik.is_file() else a.ik / "bin" / "llama-bench")
    run([os.environ.get("CC", "cc"), "-O3", "-std=c11", "-pthread", HERE / "bandwidth.c", "-o", bandwidth])
    commands, rows, reads = [], [], []
    for spec in a.models.split(","):
        gguf, g4 = make_model(a.cache, spec, a.jobs)
        tests = [(int(n), None) for n in a.prompts.split(",") if n] + [(None, int(d)) for d in a.depths.split(",") if d and not a.cpu_time]
        for prompt, depth in tests:
            theirs, others, mine, shares = [], [], [], []
            for round_ in range(a.rounds):
                reads.append(float(timed([bandwidth, threads])[0].split()[0]))
                test = (gguf, threads, prompt or 0, 0 if prompt else a.n, depth or 0, a.cpu_time)
                rate, c1 = llama_rate(llama, *test)
                theirs.append(rate)
                if ik:
                    rate, c3 = llama_rate(ik, *test, ik=True)
                    others.append(rate)
                pre, dec, info, c2 = our_rates(ours, g4, threads, prompt or depth, a.n, a.cpu_time, a.huge_pages)
                mine.append(pre if prompt else dec)
                shares.append(info["decode_bytes"] * 1e-9 * mine[-1] / reads[-1] if depth else 0)
                say(f"  {spec} {'prefill ' + str(prompt) if prompt else 'decode at ' + str(depth)}: {theirs[-1]:.2f} {mine[-1]:.2f}",
                    f"ik {others[-1]:.2f}" if ik else "")
                if round_ == 0:
                    commands += [c1, c3, c2] if ik else [c1, c2]
            med, own = statistics.median(theirs), statistics.median(mine)
            other = statistics.median(others) if ik else 0
            share = f"{100 * statistics.median(shares):.0f} %" if depth else ""  # of what was read just before: it changes by the minute
            what = f"prefill {prompt}" if prompt else f"decode at {depth}"
            extra = f" {other:.2f} | {own / other:.2f} |" if ik else ""
            rows.append(f"| {spec} | {what} | {med:.2f} | {own:.2f} | {own / med:.2f} | {share} |{extra}")
    print(f"{cpu_name()}, {threads} threads, {info['isa']}, read bandwidth {max(reads):.1f} GB/s (best of {len(reads)} runs of bench/bandwidth.c), "
          f"median of {a.rounds} rounds, tokens per {'CPU second' if a.cpu_time else 'second'}, load {os.getloadavg()[0]:.1f}\n")
    extra = (" ik_llama.cpp | ratio |", "---|---|") if ik else ("", "")
    print(f"| model | test | llama.cpp | gemma4.c | ratio | share of bandwidth |{extra[0]}\n|---|---|---|---|---|---|{extra[1]}")
    print("\n".join(rows))
    print_commands(commands, a)


if __name__ == "__main__":
    main()
