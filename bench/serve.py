#!/usr/bin/env python3
"""Measure gemma4 serve: what HTTP costs, and beside llama-server.

    python3 bench/serve.py --cache ~/.cache/gemma4-bench [--rounds 3]

Both servers get the same requests (/v1/completions with token ids, streamed) for the same random weights (bench/rivals.py
makes model and llama-server), one after the other:

  together   4 clients at once, prompts of 512 tokens whose first half is the same, answers of 128 tokens: the time until the last
             has its answer. What the servers may reuse of one round in the next, they do not: each round has prompts of its own.
  again      a prompt of 2,000 tokens and an answer, then the same with 50 tokens more behind it: the time to its first token.
  classify   with --classify: 200 prompts of 400 tokens in common and 30 of their own, answers of 4: the time of gemma4 batch, with
             --parallel 8 and 1, and of 8 clients of llama-server.

And of ours alone: the time from request to first token beyond what the engine says it took, tokens/s of one client beside
`gemma4 bench`, and 8 clients beside `gemma4 batch --parallel 8` on the same prompts."""
import argparse
import http.client
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import rivals

ROOT = rivals.ROOT
say = rivals.say


class Server:
    """A program that serves on a port of its own until it is stopped."""

    def __init__(self, command, log):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        command = [str(c) for c in command] + ["--port", str(self.port)]
        say("+", " ".join(command))
        self.log = open(log, "w")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.wait(log)

    def wait(self, log):
        end = time.monotonic() + 300
        while time.monotonic() < end and self.process.poll() is None:
            try:
                c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                c.request("GET", "/health")
                if c.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise SystemExit(f"{log}: the server does not answer")

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()

    def ask(self, prompt, n):
        """One streamed answer of n tokens: {first, seconds, tokens, engine}: seconds to its first token and its end, and the
        last `timings`."""
        body = {"model": "m", "prompt": prompt, "max_tokens": n, "temperature": 1.0, "top_k": 64, "seed": 1, "stream": True,
                "stream_options": {"include_usage": True}}
        text = json.dumps(body)
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        c.connect()
        c.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start, first, tokens, timings = time.monotonic(), None, 0, {}
        c.request("POST", "/v1/completions", text, {"Content-Type": "application/json"})
        r = c.getresponse()
        if r.status != 200:
            raise SystemExit(f"status {r.status}: {r.read(500)}")
        for line in r:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if first is None and event.get("choices"):
                first = time.monotonic() - start
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
            timings = event.get("timings") or timings
        c.close()
        return {"first": first, "seconds": time.monotonic() - start, "tokens": tokens, "timings": timings}

    def ask_all(self, prompts, n, n_clients=0):
        """(seconds until the last is answered, the answers) of clients, as many as there are prompts or n_clients."""
        with ThreadPoolExecutor(n_clients or len(prompts)) as clients:
            start = time.monotonic()
            answers = list(clients.map(lambda prompt: self.ask(prompt, n), prompts))
            return time.monotonic() - start, answers


def ids(rng, n):
    return [rng.randrange(1000, 200000) for _ in range(n)]


def together(server, rng):
    common = ids(rng, 256)
    seconds, answers = server.ask_all([common + ids(rng, 256) for _ in range(4)], 128)
    short = [a["tokens"] for a in answers if a["tokens"] != 128]
    return seconds, short


def again(server, rng):
    before = ids(rng, 2000)
    server.ask(before, 16)
    return server.ask(before + ids(rng, 50), 16)["first"]


def medians(name, theirs, mine, unit):
    t, m = statistics.median(theirs), statistics.median(mine)
    return f"| {name} | {t:.2f} {unit} | {m:.2f} {unit} | {100 * m / t:.0f} % |"


def beside(a, gguf, g4, folder):
    llama = rivals.build_llama(a.cache, a.jobs, "llama-server")
    rows = {"together": ([], []), "again": ([], [])}
    for round_ in range(a.rounds):
        for which, command in enumerate(((llama, "-m", gguf, "-t", a.t, "-np", 4, "-c", 16384, "--no-webui"),
                                         (ROOT / "gemma4", "serve", "-m", g4, "-t", a.t, "--parallel", 4, "-c", 4096))):
            server, rng = Server(command, folder / f"log{which}"), random.Random(round_)
            server.ask(ids(rng, 64), 8)  # what is read from disk first is not counted
            seconds, short = together(server, rng)
            rows["together"][which].append(seconds)
            rows["again"][which].append(again(server, rng))
            say(f"  {'ours' if which else 'llama-server'}: together {seconds:.2f} s, again {rows['again'][which][-1]:.3f} s",
                f"answers of {short} tokens" if short else "")
            server.stop()
    print("| | llama-server | gemma4 serve | |\n|---|---|---|---|")
    print(medians("4 clients, 512 tokens each with a common half, 128-token answers", *rows["together"], "s"))
    print(medians("2,000 tokens and 50 more: first token", *rows["again"], "s"))


def classify(a, gguf, g4, folder):
    llama = rivals.build_llama(a.cache, a.jobs, "llama-server")
    theirs, mine = [], {1: [], 8: []}
    for round_ in range(a.rounds):
        rng = random.Random(round_)
        common = ids(rng, 400)
        prompts = [common + ids(rng, 30) for _ in range(200)]
        for parallel in mine:
            mine[parallel].append(batch_seconds(g4, a.t, prompts, 4, folder, parallel)[0])
        server = Server((llama, "-m", gguf, "-t", a.t, "-np", 8, "-c", 8192, "--no-webui"), folder / "log")
        server.ask(ids(rng, 64), 8)
        theirs.append(server.ask_all(prompts, 4, 8)[0])
        server.stop()
        say(f"  gemma4 batch {mine[8][-1]:.1f} s, --parallel 1 {mine[1][-1]:.1f} s, llama-server {theirs[-1]:.1f} s")
    print("| | llama-server | gemma4 batch | |\n|---|---|---|---|")
    for parallel, seconds in mine.items():
        print(medians(f"200 classifications, 400 tokens in common, --parallel {parallel}", theirs, seconds, "s"))


def batch_seconds(g4, t, prompts, n, folder, parallel=8):
    """Of gemma4 batch on the same prompts; its own clock would leave out that it opens the model."""
    lines, out = folder / "lines.jsonl", folder / "out.jsonl"
    lines.write_text("".join(json.dumps({"url": "/v1/completions", "method": "POST", "custom_id": str(i), "body": {
        "prompt": p, "max_tokens": n, "temperature": 1.0, "top_k": 64, "seed": 1}}) + "\n" for i, p in enumerate(prompts)))
    out.unlink(missing_ok=True)
    start = time.monotonic()
    subprocess.run([ROOT / "gemma4", "batch", "-m", g4, "-t", str(t), "--parallel", str(parallel), "-o", out, lines], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    tokens = sum(json.loads(line)["response"]["body"]["usage"]["completion_tokens"] for line in out.read_text().splitlines())
    return seconds, tokens


def share(a, g4, folder):
    """What HTTP costs."""
    over, rate, engine, alone, parallel, batch = [], [], [], [], [], []
    for round_ in range(a.rounds):
        rng = random.Random(round_)
        server = Server((ROOT / "gemma4", "serve", "-m", g4, "-t", a.t, "--parallel", 8, "-c", 1024), folder / "log")
        server.ask(ids(rng, 64), 8)
        for _ in range(5):
            r = server.ask(ids(rng, 16), 1)
            over.append(1e3 * r["seconds"] - r["timings"]["prompt_ms"] - r["timings"]["predicted_ms"])
        r = server.ask(ids(rng, 128), 64)
        rate.append(r["tokens"] / (r["seconds"] - r["first"]))
        engine.append(r["timings"]["predicted_per_second"])
        prompts = [ids(rng, 64) for _ in range(8)]
        seconds, answers = server.ask_all(prompts, 64)
        parallel.append(sum(x["tokens"] for x in answers) / seconds)
        server.stop()
        out = rivals.timed([ROOT / "gemma4", "bench", "-m", g4, "-t", a.t, "--lengths", 128, "-n", 64, "--repeat", 1, "--json"])[0]
        alone.append(json.loads(out)["runs"][0]["decode_tokens_per_second"])
        empty, _ = batch_seconds(g4, a.t, [[1000]], 1, folder)
        seconds, tokens = batch_seconds(g4, a.t, prompts, 64, folder)
        batch.append(tokens / (seconds - empty))
        say(f"  over {over[-1]:.2f} ms, one {rate[-1]:.2f} and {alone[-1]:.2f}, eight {parallel[-1]:.2f} and {batch[-1]:.2f} tokens/s")
    print("| | |\n|---|---|")
    print(f"| first token: beyond what the engine took, median of {len(over)} | {statistics.median(over):.2f} ms |")
    one, bench = statistics.median(rate), statistics.median(alone)
    shares = [100 * r / e for r, e in zip(rate, engine)]  # of one run: two differ by more than HTTP costs
    print(f"| one client, and of what the engine took in the same run | {one:.2f} tokens/s, {statistics.median(shares):.2f} % |")
    print(f"| one client; gemma4 bench | {one:.2f}; {bench:.2f} tokens/s, {100 * one / bench:.1f} % |")
    eight, lines = statistics.median(parallel), statistics.median(batch)
    print(f"| 8 clients; gemma4 batch --parallel 8 | {eight:.2f}; {lines:.2f} tokens/s, {100 * eight / lines:.1f} % |")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--cache", required=True, type=Path, help="folder for llama.cpp and the models, outside the tree (10 GB)")
    p.add_argument("--model", default="e2b:q4_0", help="shape:type[:layers], as bench/rivals.py has it")
    p.add_argument("-t", type=int, default=os.cpu_count(), help="threads")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--jobs", type=int, default=1, help="of the build of llama.cpp")
    p.add_argument("--alone", action="store_true", help="without llama-server")
    p.add_argument("--classify", action="store_true", help="instead: many short answers behind a prompt in common")
    a = p.parse_args()
    a.cache.mkdir(parents=True, exist_ok=True)
    rivals.run(["make", "-s", "-C", ROOT, "all"])
    gguf, g4 = rivals.make_model(a.cache, a.model, a.jobs)
    with tempfile.TemporaryDirectory() as folder:
        print(f"{rivals.cpu_name()}, {a.t} threads, {a.model}, median of {a.rounds} rounds, load {os.getloadavg()[0]:.1f}\n")
        if a.classify:
            classify(a, gguf, g4, Path(folder))
            return
        share(a, g4, Path(folder))
        if not a.alone:
            print()
            beside(a, gguf, g4, Path(folder))


if __name__ == "__main__":
    sys.exit(main())
