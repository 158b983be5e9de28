#!/usr/bin/env python3
"""Broken checkpoints for export.py: small ones are made here, one thing or a few are changed, and what follows must be a model file
that the engine opens, or one line and nothing left behind.

    python3 tests/fuzz_export.py [--cases N] [--seconds S] [--seed S] [--case I]

Case i of a seed is the same on every machine; --case I shows one alone. A failure is a traceback, the words of the last resort in
export.main, more or less than one line, an exit status other than 0, 1 and 2, more than 5 seconds of a processor or 60 of the clock,
more than 4 GB, a file left in the folder of the output, or a model file that the program refuses. Needs numpy. Ends with the line "N passed, N failed".
"""

import argparse
import collections
import contextlib
import copy
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np

import checkpoints as make
import export
import packed

PROGRAM = os.path.abspath(os.environ.get("G4_PROGRAM", os.path.join(make.ROOT, "gemma4")))
LIMITS = {signal.ITIMER_PROF: 5, signal.ITIMER_REAL: 60}  # seconds of a case: of processors, of the clock
MEMORY = resource.getrlimit(resource.RLIMIT_AS)  # of the program, which the sanitizers give an address space of its own
NOT_TEXT = "a\n\x1b[31mb\ud800"
VALUES = [None, True, False, 0, 1, 2, 3, 7, 32, -1, 64.0, 0.5, -0.0, 1e-320, 1e300, float("nan"), float("inf"), 255, 2**16, 2**31 - 1, 2**31,
          2**32, 2**63, 2**64, 10**40, 10**400, "", "x", "64", "F32", "F8_E4M3", "sliding_attention", NOT_TEXT, "x" * 5000, [], [1], [0, 0, 0],
          ["a", "b"], [[1]], {}, {"a": 1}, {"rope_type": "linear"}]
NUMBERS = [0, 1, 2, 3, 8, 9, 13, 30, 31, 32, 33, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


class Hang(BaseException):
    pass


def hang(*_):
    raise Hang


def set_limits(on):
    for timer, seconds in LIMITS.items():
        signal.setitimer(timer, seconds * on)


# ---- Changes ------------------------------------------------------------------------------------------

def places(tree, path=()):
    """Every place in a tree of JSON, as a path of keys; of long lists and objects only some."""
    yield path
    items = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    for key, value in items[:40] + items[-2:] if len(items) > 42 else items:
        yield from places(value, (*path, key))


def change_json(rng, tree):
    """A copy with one place given another value, removed, doubled or renamed."""
    tree = copy.deepcopy(tree)
    path = rng.choice(list(places(tree)))
    if not path:
        return rng.choice(VALUES)
    at = tree
    for key in path[:-1]:
        at = at[key]
    key, how = path[-1], rng.randrange(8)
    if how == 0:
        del at[key]
    elif how == 1 and isinstance(at, list):
        at.insert(key, at[key])
    elif how == 2 and isinstance(at, dict):
        at[rng.choice([NOT_TEXT, "x", "", *at])] = at.pop(key)
    elif how == 3 and isinstance(at[key], (int, float)) and not isinstance(at[key], bool):
        at[key] = rng.choice([at[key] + 1, at[key] - 1, -at[key], at[key] * 2, float(at[key]), at[key] * 10**6])
    else:
        at[key] = rng.choice(VALUES)
    return tree


def change_bytes(rng, data, head):
    """One to three changes among the first bytes; head: how many of them describe the rest."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 3])):
        at, how = rng.randrange(min(head, len(data)) or 1), rng.randrange(7)
        if how == 0:
            del data[rng.randrange(len(data)):]
        elif how == 1:
            data[at:at + 8] = struct.pack("<Q", rng.choice(NUMBERS))
        elif how == 2:
            data[at:at + 4] = struct.pack("<I", rng.choice(NUMBERS) & 0xFFFFFFFF)
        elif how == 3:
            data[at:at] = data[at:at + rng.randrange(1, 40)]
        elif how == 4:
            del data[at:at + rng.randrange(1, 40)]
        elif len(data):
            data[at % len(data)] = rng.choice([0, 255, rng.randrange(256), data[at % len(data)] ^ 1 << rng.randrange(8)])
        if not data:
            break
    return bytes(data)


def change_header(rng, header):
    """A copy with the description of one tensor changed, or anything."""
    if rng.random() < 0.2:
        return change_json(rng, header)
    header = copy.deepcopy(header)
    entry = header[rng.choice([name for name in header if name != "__metadata__"])]
    how, (begin, end) = rng.randrange(5), entry["data_offsets"]
    if how == 0:
        entry["dtype"] = rng.choice(["F32", "F16", "BF16", "F8_E4M3", "U8", "I64", "F4", 7, None, ""])
    elif how == 1:
        entry["shape"] = rng.choice([[], [0], [-1, -2], [2**31, 2**33], [2**40] * 40, entry["shape"] + [1], entry["shape"][::-1], "ab", [None], [1.5]])
    elif how == 2:
        entry["data_offsets"] = rng.choice([[begin, end, end], [begin], [], [end, begin], [-4, end], [begin + 2, end + 2], [0, end], [begin, 2**63],
                                            [0, 0], [None, end], "ab", {"a": 1}, [float(begin), end], [begin, end + 4]])
    elif how == 3:
        entry["more"] = 1
    else:
        del entry[rng.choice(list(entry))]
    return header


def change_packed(rng, tensors):
    """A copy in which a tensor, of those that describe others as a rule, is missing, has another name, shape or type, or other bytes."""
    tensors = dict(tensors)
    for _ in range(rng.choice([1, 1, 2])):
        small = [name for name, (_, _, data) in tensors.items() if len(data) < 1000 and ".layers." in name]
        name = rng.choice(small if small and rng.random() < 0.7 else list(tensors))
        (dtype, shape, data), how = tensors.pop(name), rng.randrange(6)
        if how == 1:
            name = rng.choice([name + "_scale", name.rpartition(".")[0] + rng.choice([".weight", ".scales", ".qzeros", ".SCB", ".weight_packed"])])
        elif how == 2:
            n = max(1, len(data) * rng.choice([0, 1, 2, 4]) // 2 // 8 * 8)
            dtype, shape, data = "U8", [n], (data * 2)[:n].ljust(n, b"\0")
        elif how == 3:
            shape = rng.choice([shape[::-1], [1, *shape], [*shape, 1], [int(np.prod(shape))]])
        elif how == 4:
            dtype = rng.choice({4: ["F32", "I32", "U32"], 2: ["F16", "BF16"], 1: ["I8", "U8", "F8_E4M3"]}.get(len(data) // int(np.prod(shape)), [dtype]))
        elif how == 5:
            data = change_bytes(rng, data, len(data)).ljust(len(data), b"\0")[:len(data)]
        if how:
            tensors[name] = (dtype, shape, data)
    return tensors


def gguf_raw(rng):
    """(type number, bytes) of a metadata value, or what pretends to be one."""
    kind, n = rng.randrange(-1, 15), rng.choice(NUMBERS)
    if kind == 9:
        return 9, struct.pack("<IQ", rng.choice([0, 4, 5, 6, 7, 8, 9, 10, 12, 99]), n) + bytes(rng.randrange(40))
    if kind == 8:
        return 8, struct.pack("<Q", n) + b"ab"
    if kind in export.GGUF_SCALARS:
        size = struct.calcsize(export.GGUF_SCALARS[kind])
        return kind, (struct.pack("<Q", n) if rng.random() < 0.7 else struct.pack("<d", float("nan")))[:size]
    return kind & 0xFFFFFFFF, bytes(8)


def change_gguf(rng, meta, tensors):
    """The bytes of a file with some of its metadata and tensors changed."""
    meta, tensors = dict(meta), dict(tensors)
    for _ in range(rng.choice([1, 1, 2])):
        how = rng.randrange(8)
        if how < 3:
            meta[rng.choice([*meta, "general.alignment", "split.count", "general.sampling.temp"])] = gguf_raw(rng)
        elif how == 3:
            del meta[rng.choice(list(meta))]
        elif how == 4:
            key = rng.choice([k for k, v in meta.items() if isinstance(v, list)] or ["a.list"])
            values = list(meta.get(key, [1]))
            values[rng.randrange(len(values))] = values[rng.randrange(len(values))]
            meta[key] = values[:rng.choice([len(values), 1, len(values) - 1])] * rng.choice([1, 1, 2]) or [0]
        else:
            name = rng.choice(list(tensors))
            dtype, shape, data = tensors.pop(name)
            if how == 5:
                continue
            shape = rng.choice([shape, shape[::-1], [0, *shape], [2**32, 2**32, 2**32, 2**32], [2**64 - 1], [1] * 5, []]) if how == 6 else shape
            name = rng.choice([name, name + "x", "blk.99999." + name.split(".", 2)[-1], NOT_TEXT[:3]]) if how == 7 else name
            tensors[name] = (rng.choice(list(make.TYPES)) if rng.random() < 0.5 else dtype, shape, data)
    if not meta or rng.random() < 0.2:
        meta["general.alignment"] = rng.choice(NUMBERS) & 0xFFFFFFFF
    return make.gguf({k: (9, struct.pack("<IQ", 4, 0)) if v == [] else v for k, v in meta.items()}, tensors)


# ---- Cases ----------------------------------------------------------------------------------------------

class Bench:
    """The whole checkpoints, and a folder for what is made of them."""

    def __init__(self, scratch):
        self.scratch, self.out = scratch, os.path.join(scratch, "out")
        os.mkdir(self.out)
        self.config = make.config(towers=True)
        self.tensors = {**make.tensors(self.config), **make.bounds(self.config)}
        self.settings = {
            "config.json": self.config, "tokenizer.json": make.tokenizer(),
            "generation_config.json": {"eos_token_id": [1, 5], "temperature": 1.0, "top_k": 64, "top_p": 0.95, "do_sample": True},
            "processor_config.json": {"image_processor": {"max_soft_tokens": 280}},
            "tokenizer_config.json": {"chat_template": [{"name": "default", "template": "{{ '<|turn>' }}"}]}}
        self.index = {"metadata": {}, "weight_map": {name: "model-1.safetensors" for name in self.tensors}}
        self.weights = make.safetensors(self.tensors)
        self.gguf = make.gguf_parts(self.config, self.tensors)
        self.ollama = make.ollama_parts(self.config, self.tensors, packed_bounds=True)
        meta, tensors = self.ollama
        self.mmproj = ({"general.architecture": "clip", "clip.has_vision_encoder": True, "clip.vision.projector_type": "gemma4v",
                        **{key.replace("gemma4.", "clip."): v for key, v in meta.items() if key.startswith("gemma4.vision.")}},
                       {name: t for name, t in tensors.items() if name.startswith(("v.", "mm.i")) and "clamp" not in name})
        blocks = make.config(hidden_size=256)
        meta, tensors = make.gguf_parts(blocks, make.tensors(blocks))
        kinds = ["Q4_K", "Q5_0", "Q6_K", "Q4_1", "Q5_K", "Q5_1", "MXFP4", "TQ2_0"]
        factors = {f"blk.0.{name}.scale": ("F32", [1], struct.pack("<f", 0.5)) for name in ("attn_q", "ffn_gate", "ffn_down")}
        self.blocks = meta, {**make.as_blocks(np.random.default_rng(1), tensors, kinds), **factors}
        self.whole_gguf = make.gguf(*self.gguf)
        small = make.tensors(packed.CONFIG)
        self.packed = [packed.checkpoint(kind, packed.CONFIG, small)[:2] for kind in packed.KINDS]

    def folder(self, rng):
        where = os.path.join(self.scratch, "folder")
        shutil.rmtree(where, ignore_errors=True)
        os.mkdir(where)
        wrong, settings, tensors, weights, name = rng.randrange(4), dict(self.settings), self.tensors, self.weights, "model.safetensors"
        is_packed = rng.random() < 0.4
        if is_packed:
            settings["config.json"], tensors = rng.choice(self.packed)
            weights = make.safetensors(tensors)
        if wrong == 0:
            file = rng.choice(list(settings))
            settings[file] = change_json(rng, settings[file])
        elif wrong == 1:
            weights = make.safetensors(change_packed(rng, tensors) if is_packed else tensors, change=lambda header: change_header(rng, header))
        elif wrong == 2 and is_packed:
            weights = make.safetensors(change_packed(rng, tensors))
        elif wrong == 2:
            weights = change_bytes(rng, weights, 8 + int.from_bytes(weights[:8], "little"))
        if rng.random() < 0.15:
            name, settings["model.safetensors.index.json"] = "model-1.safetensors", change_json(rng, self.index)
        for file, value in settings.items():
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            make.write(os.path.join(where, file), change_bytes(rng, data, len(data)) if wrong == 3 and rng.random() < 0.3 else data)
        make.write(os.path.join(where, name), weights)
        return [where]

    def file(self, rng):
        where, mmproj = os.path.join(self.scratch, "model.gguf"), os.path.join(self.scratch, "mmproj.gguf")
        parts = rng.choice([self.gguf, self.ollama, self.blocks])
        how = rng.randrange(4)
        if how == 0:
            make.write(where, self.whole_gguf)
            make.write(mmproj, change_gguf(rng, *self.mmproj))
            return [where, "--mmproj", mmproj]
        whole = make.gguf(*parts)
        make.write(where, change_gguf(rng, *parts) if how < 3 else change_bytes(rng, whole, rng.choice([40, 4000, len(whole)])))
        return [where]

    def statistics(self, rng):
        """Options with statistics, whole or broken, of the same model or another."""
        where, cols = os.path.join(self.scratch, "statistics"), rng.choice([32, 32, 32, 64, 1])
        means, counts = np.ones((1, cols), np.float32), [rng.choice([0, 1, 7, 2**40])]
        data = rng.choice([make.statistics({"l.0.q": (means, counts), "embed": (means, counts)}),
                           make.imatrix({"blk.0.attn_q.weight": (means, counts), "output.weight": (means, counts)})])
        make.write(where, rng.choice([data, change_bytes(rng, data, rng.choice([40, 400, len(data)])), data[:rng.randrange(len(data))]]))
        return ["--calibration", where]

    def run(self, i, seed):
        """The fault of case i in words, or None; and its exit status."""
        rng = random.Random(f"{seed} {i}")
        arguments = self.folder(rng) if rng.random() < 0.5 else self.file(rng)
        arguments += ["-o", os.path.join(self.out, "x.g4"), "--type", rng.choice(["auto", "auto", *export.TYPE_NAMES])]
        arguments += ["--text-only"] if rng.random() < 0.2 else []
        arguments += self.statistics(rng) if rng.random() < 0.2 else []
        err, sys.argv = io.StringIO(), ["export.py", *arguments, "--quiet"]
        try:
            with contextlib.redirect_stderr(err), contextlib.redirect_stdout(err):
                set_limits(True)
                code = export.main()
        except Hang:
            return "takes too long", None
        except BaseException as e:  # whatever it is, it is a fault
            return f"{type(e).__name__}: {e}", None
        finally:
            set_limits(False)
        said, left = err.getvalue(), os.listdir(self.out)
        if code not in (0, 1, 2) or "a fault in export.py" in said or "no memory" in said:
            return f"exit {code}: {said}", code
        if len(said.splitlines()) != (code != 0) or said.count("\n") != (code != 0):
            return f"exit {code}, and not one line: {said!r}", code
        if left != ["x.g4"] * (code == 0):
            return f"exit {code}, left behind: {left}", code
        if code == 0 and os.path.exists(PROGRAM):
            r = subprocess.run([PROGRAM, "info", "-m", os.path.join(self.out, "x.g4")], capture_output=True, text=True, errors="replace",
                               preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY[1], MEMORY[1])))
            if r.returncode != 0:
                return f"the program refuses what was written: {r.stderr}", code
        return None, code


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cases", type=int, default=400)
    p.add_argument("--seconds", type=float, default=float("inf"), help="stop then, however many cases are left")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--case", type=int, help="only this one")
    a = p.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, MEMORY[1]))
    export.os.fsync = lambda fd: None  # nothing here outlives the run
    signal.signal(signal.SIGALRM, hang)
    signal.signal(signal.SIGPROF, hang)
    numbers = [a.case] if a.case is not None else range(a.cases)
    start, codes, failed = time.monotonic(), collections.Counter(), 0
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(scratch)
        for i in numbers:
            if time.monotonic() - start > a.seconds:
                break
            fault, code = bench.run(i, a.seed)
            codes[code] += 1
            if fault:
                failed += 1
                print(f"FAILED  case {i} of seed {a.seed}: {fault[:500]}", flush=True)
            for name in os.listdir(bench.out):
                os.unlink(os.path.join(bench.out, name))
    n = sum(codes.values())
    print(f"export.py: {n} broken checkpoints in {time.monotonic() - start:.1f} s, {codes[0]} of them still good enough, {codes[1]} refused")
    print(f"{n - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
