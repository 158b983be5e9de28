#!/usr/bin/env python3
"""python/examples/ray_batch.py on this machine: equal answers by one actor and by two, an actor killed amid its rows, weights
mapped once, files in and out. `make test-ray` makes the virtual environment.

usage: ray_tests.py [--time MODEL ROWS]   (with --time: rows a second of one actor of two threads and of two of one)"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLES = os.path.join(os.path.dirname(HERE), "examples")
EXAMPLE = os.path.join(EXAMPLES, "ray_batch.py")
sys.path.insert(0, EXAMPLES)
OPTIONS = {"max_tokens": 24, "temperature": 0.0, "seed": 1}
passed = failed = 0


def expect(what, ok, found=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print(f"-- {what}: {found}")


def prompts(n):
    return [{"id": i, "prompt": f"What is {i % 50 + 10} - {i % 7}?"} for i in range(n)]


def actors_of(model):
    """Processes that have mapped the model file, with the bytes of it that are theirs (Pss) and in memory (Rss)."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/smaps") as f:
                text = f.read()
        except OSError:
            continue
        if model not in text:
            continue
        pss = rss = 0
        inside = False
        for line in text.splitlines():
            if line[:1] in "0123456789abcdef" and "-" in line.split(" ", 1)[0]:
                inside = model in line
            elif inside and line.startswith("Pss:"):
                pss += int(line.split()[1]) * 1024
            elif inside and line.startswith("Rss:"):
                rss += int(line.split()[1]) * 1024
        found[int(pid)] = (pss, rss)
    return found


def answered(rows, actors, model, threads=1, kill=False):
    """The rows with answers, and what the actors had mapped at their most."""
    import ray

    from ray_batch import answer_rows

    data = ray.data.from_items(rows, override_num_blocks=max(1, len(rows) // 8))
    most, killed, over = {}, [], threading.Event()

    def look():
        while not over.wait(0.2):
            now = actors_of(model)
            if len(now) >= len(most):
                most.clear()
                most.update(now)
            if kill and not killed and len(now) == actors:
                time.sleep(0.3)  # amid a block
                killed.append(min(now))
                os.kill(killed[0], signal.SIGKILL)

    watcher = threading.Thread(target=look)
    watcher.start()
    start = time.monotonic()
    try:
        out = answer_rows(data, actors, model, threads, 8, OPTIONS, 8).take_all()
    finally:
        seconds = time.monotonic() - start
        over.set()
        watcher.join()
    return [{k: row[k] for k in ("id", "answer", "finish_reason", "tokens", "error")} for row in out], most, killed, seconds


def test_actors(model):
    rows = prompts(96)
    one, _, _, _ = answered(rows, 1, model)
    two, most, _, _ = answered(rows, 2, model)
    expect("all rows are answered, in order", [r["id"] for r in one] == list(range(len(rows))), one[:3])
    expect("no row has an error", not any(r["error"] for r in one), one[:3])
    expect("two actors answer as one", one == two, [(a, b) for a, b in zip(one, two) if a != b][:2])
    pss, rss = sum(p for p, _ in most.values()), max((r for _, r in most.values()), default=0)
    print(f"weights of two actors: Rss {[r for _, r in most.values()]}, Pss together {pss} bytes")
    expect("the weights are in memory once", len(most) >= 2 and pss <= 1.1 * rss, most)
    killed, _, who, _ = answered(rows, 2, model, kill=True)
    expect("an actor was killed", len(who) == 1, who)
    expect("nothing is lost with it", killed == one, [(a, b) for a, b in zip(one, killed) if a != b][:2])
    bad = [{"id": 0, "prompt": "hi"}, {"id": 1, "prompt": ""}, {"id": 2, "prompt": "x " * 20000}, {"id": 3, "prompt": "hi"}]
    found, _, _, _ = answered(bad, 1, model)
    expect("an error is its row's alone", found[2]["error"] and not found[0]["error"] and found[0]["answer"] == found[3]["answer"],
           found)


def test_program(model):
    with tempfile.TemporaryDirectory() as folder:
        rows = os.path.join(folder, "rows.jsonl")
        with open(rows, "w") as f:
            for row in prompts(20):
                f.write(json.dumps(row) + "\n")
            f.write(json.dumps({"id": 20, "messages": json.dumps([{"role": "user", "content": "hi"}])}) + "\n")
        out = os.path.join(folder, "out")
        p = subprocess.run([sys.executable, EXAMPLE, rows, out, "--model", model, "--block", "8", "--max-tokens", "8"],
                           capture_output=True, text=True)
        expect("the program says how fast it was", p.returncode == 0 and "21 rows" in p.stdout, p.stdout + p.stderr[-2000:])
        found = []
        for name in sorted(os.listdir(out)) if os.path.isdir(out) else []:
            with open(os.path.join(out, name)) as f:
                found += [json.loads(line) for line in f]
        expect("JSONL in, JSONL out", sorted(r["id"] for r in found) == list(range(21)) and all(r["answer"] for r in found), found[:2])
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(prompts(9)), os.path.join(folder, "rows.parquet"))
        out = os.path.join(folder, "out2")
        p = subprocess.run([sys.executable, EXAMPLE, os.path.join(folder, "rows.parquet"), out, "--model", model, "--max-tokens", "8"],
                           capture_output=True, text=True)
        table = pyarrow.parquet.read_table(out) if p.returncode == 0 else None
        expect("Parquet in, Parquet out", table is not None and table.num_rows == 9 and all(table["answer"].to_pylist()), p.stderr[-2000:])
        p = subprocess.run([sys.executable, EXAMPLE, "no such file", out], capture_output=True, text=True)
        expect("a missing file is said", p.returncode == 2 and "no such file" in p.stderr, p.stderr)


def measure(model, n):
    rows = [{"id": i, "prompt": f"Write about the number {i}."} for i in range(n)]
    for actors, threads in ((1, 2), (2, 1), (1, 2), (2, 1)):
        found, _, _, seconds = answered(rows, actors, model, threads)
        tokens = sum(r["tokens"] for r in found)
        print(f"{actors} actors of {threads} threads: {n} rows, {tokens} tokens, {seconds:.1f} s, {tokens / seconds:.1f} tokens/s")


def main():
    import logging

    import ray

    import gemma4c

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    paths = os.pathsep.join([EXAMPLES] + os.environ.get("PYTHONPATH", "").split(os.pathsep))
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False,
             runtime_env={"env_vars": {"PYTHONPATH": paths}})  # actors import the example too
    if sys.argv[1:2] == ["--time"]:
        return measure(os.path.abspath(sys.argv[2]), int(sys.argv[3]))
    with gemma4c.Engine() as engine:
        model = os.path.abspath(os.fsdecode(engine.path))
    test_actors(model)
    ray.shutdown()
    test_program(model)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
