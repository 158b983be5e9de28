#!/usr/bin/env python3
"""Many prompts on many machines: ray.data reads rows, actors with an engine each answer them, rows come out.

    python3 python/examples/ray_batch.py prompts.jsonl answers --actors 2 --threads 1
    python3 python/examples/ray_batch.py prompts.parquet answers --model /shared/model.g4 --address auto --actors 20

A row has a text "prompt" or JSON "messages"; it comes back with "answer", "finish_reason", "tokens" and "error" beside
what it had, in a file of the same kind for each block of rows. Actors on one node map the model file once: what they share
is counted in the page cache. Ray starts an actor that died again and gives its rows to another. docs/cluster.md has
figures. Needs ray[data] and gemma4c.
"""

import argparse
import json
import os
import time

import ray


class Answerer:
    """One actor: an engine that stays open, and answers a block of rows at a time."""

    def __init__(self, model, threads, parallel, options):
        from gemma4c import Engine

        self.engine = Engine(model, threads=threads)
        self.parallel, self.options = parallel, options

    def __call__(self, rows):
        """rows: pyarrow.Table. An error is its row's alone."""
        prompts = [json.loads(m) if m else p for p, m in zip(column(rows, "prompt"), column(rows, "messages"))]
        answers = list(self.engine.batch(prompts, parallel=self.parallel, errors="return", **self.options))
        for name, values in (
            ("answer", [a.text for a in answers]),
            ("finish_reason", [a.finish_reason for a in answers]),
            ("tokens", [a.usage.completion_tokens if a.usage else 0 for a in answers]),
            ("error", [str(a.error) if a.error else "" for a in answers]),
        ):
            rows = rows.append_column(name, [values])
        return rows


def column(rows, name):
    """The values of a column, or as many None."""
    return rows[name].to_pylist() if name in rows.column_names else [None] * rows.num_rows


def answer_rows(rows, actors, model, threads, parallel, options, block):
    """rows: a ray.data.Dataset -> one with the answers, in the same order."""
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    return rows.map_batches(
        Answerer,
        fn_constructor_args=(model, threads, parallel, options),
        batch_format="pyarrow",
        batch_size=block,
        num_cpus=threads,
        compute=ray.data.ActorPoolStrategy(size=actors),
    )


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("rows", help="a .jsonl or .parquet file, or a folder of them")
    p.add_argument("out", help="folder for the answers")
    p.add_argument("--model", help="a .g4 file that every node can read; the bundled one by default")
    p.add_argument("--address", help="of a cluster; this machine alone by default")
    p.add_argument("--actors", type=int, default=1)
    p.add_argument("--threads", type=int, default=1, help="of each actor")
    p.add_argument("--parallel", type=int, default=8, help="answers at a time in each actor")
    p.add_argument("--block", type=int, default=64, help="rows that an actor takes, and that are lost with it, at a time")
    p.add_argument("--max-tokens", type=int, default=256)
    p.add_argument("--temperature", type=float, default=0.0)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    for name in ("actors", "threads", "parallel", "block"):
        if getattr(a, name) < 1:
            p.error(f"--{name}: expected at least 1, found {getattr(a, name)}")
    if not os.path.exists(a.rows):
        p.error(f"{a.rows}: no such file or folder")

    ray.init(address=a.address, log_to_driver=False, include_dashboard=False)
    is_parquet = a.rows.endswith(".parquet")
    rows = ray.data.read_parquet(a.rows) if is_parquet else ray.data.read_json(a.rows, file_extensions=None)
    rows = rows.repartition(target_num_rows_per_block=a.block)
    options = {"max_tokens": a.max_tokens, "temperature": a.temperature, "seed": a.seed}
    start = time.monotonic()
    done = answer_rows(rows, a.actors, a.model, a.threads, a.parallel, options, a.block).materialize()
    seconds = time.monotonic() - start
    if is_parquet:
        done.write_parquet(a.out)
    else:
        done.write_json(a.out)
    n, tokens = done.count(), done.sum("tokens")
    print(f"{n} rows, {tokens} tokens, {seconds:.1f} s, {tokens / seconds:.1f} tokens/s")


if __name__ == "__main__":
    main()
