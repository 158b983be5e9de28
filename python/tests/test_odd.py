"""Odd values: every public name is called with 200 values that nobody meant. What comes back is an answer, a TypeError,
a ValueError or the engine's own error, and the process lives."""

import datetime
import decimal
import enum
import fractions
import importlib.util
import inspect
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import threading
import unittest

import gemma4c

EVERY = 5
EXPECTED = (TypeError, ValueError, gemma4c.Gemma4Error, OSError)


# ---- Values --------------------------------------------------------------------------------------------------------


def liar(**methods):
    """An object whose special methods raise or lie."""
    return type("Liar", (), {f"__{k}__": v for k, v in methods.items()})()


def fail(*_):
    raise LookupError("odd")


def nested(depth, kind):
    value = []
    for _ in range(depth):
        value = [value] if kind is list else {"type": value}
    return value


def self_made():
    value = []
    value.append(value)
    return value


def endless():
    while True:
        yield 1


class Color(enum.Enum):
    RED = 1


def odd_values():
    """At least 200 of them, made afresh: some are used up."""
    values = [None, True, False, NotImplemented, Ellipsis]
    values += [0, 1, -1, 2, 3, 5, 63, 64, 65, 255, 256, 257, 1023, 4096, 2047, 2048, 2049, 65535, 65536, 10**9]
    values += [sign * 2**n + d for n in (31, 32, 63, 64, 128, 4000) for sign in (1, -1) for d in (0, -1)]
    values += [0.0, -0.0, 0.5, 1.5, -1.0, 1e-320, 1e30, 1e308, -1e308, float("nan"), float("inf"), -float("inf"), 1j]
    values += [decimal.Decimal("NaN"), decimal.Decimal(1), fractions.Fraction(1, 3), datetime.datetime.max, Color.RED]
    values += ["", " ", "\0", "a\0b", "\ud800", "a\udfffb", "\ufeff", "\U0010ffff", "\u202e", "é", "e\u0301", "%s%n%x",
               "../..", "/", ".", "/dev/null", "/nowhere", "C:\\", "<|turn>model", "<bos>", "{}", "[]", "{", "null", "NaN",
               "auto", "none", "required", "high", "user", "root ::= root", "root ::= \"a\"", "[a-", "(" * 50, "a" * 300,
               "x" * 10000, "\n" * 99, "data:,x", "data:image/png;base64,!", "file:///etc/passwd", "http://localhost/",
               "gemma4c-0:0", "f16", "return"]
    values += [b"", b"\0", b"\xff\xfe", b"abc", b"P6 1 1 255 \0\0\0", b"P6 99999 99999 255 ", b"\x89PNG\r\n\x1a\n",
               b"RIFF\xff\xff\xff\xffWAVE", b"GIF89a", b"\xff\xd8\xff", b"a" * 5000, bytearray(b"x"), memoryview(b"xy"),
               memoryview(b"x" * 8)[::2]]
    values += [[], (), {}, set(), frozenset(), [None], [[]], [{}], [0], [-1], [2**40], [1.5], ["a"], [b"a"], ["a", 1], [True],
               [float("nan")], list(range(3)), range(0), range(3), range(10**12), [Color.RED],
               [gemma4c.Box("a", 0, 0, 1, 1)], (1, 2, 3, 4), ["a"] * 1000]
    values += [{"role": "user"}, {"role": None, "content": None}, {"role": "user", "content": 5}, {"a": {}}, {1: 2},
               {None: None}, {"type": "object"}, {"type": 5}, {"$ref": "#"}, {"$ref": "#/x"}, {"enum": []},
               {"type": "string", "pattern": "("}, {"type": "image", "image": b"x"}, {"type": "image", "image": object()},
               {"name": "x"}, {"function": 5}, {"const": float("inf")}, {"x": {1, 2}}, {"5": 1}, {"99999999999": 1},
               {"type": ["object", "object"]}, {"anyOf": []}, {"minimum": 5, "maximum": 1}]
    values += [[{"role": "user", "content": c}] for c in (None, [], "", 5, [5], [None], [{}], [{"type": "text"}],
                                                          ["x", b"x"], {"a": 1}, "\ud800")]
    values += [[{"role": r, "content": "x"}] for r in ("tool", "system", "assistant", "alien", None, 5)]
    values += [object, object(), type, int, str, list, Exception, Exception("x"), len, print, lambda: 1,
               lambda *a, **k: None, endless, fail, os, sys.stdout, threading.Lock(), iter([]), iter([1]), endless(),
               (x for x in "ab"), map(fail, [1]), property()]
    values += [liar(index=fail), liar(index=lambda s: "x"), liar(float=fail), liar(len=lambda s: -1), liar(iter=fail),
               liar(str=fail), liar(fspath=fail), liar(fspath=lambda s: 5), liar(getattr=fail), liar(hash=fail), liar(eq=fail),
               liar(bool=fail), liar(array_interface=5), liar(array_interface={}), liar(call=fail), liar(repr=fail),
               liar(getitem=fail),
               liar(array_interface={"shape": (1 << 40,), "typestr": "|u1", "data": (0, True), "version": 3})]
    values += [nested(50, list), nested(3000, list), nested(3000, dict), self_made()]
    values += [pathlib.Path("."), pathlib.Path("/nowhere"), pathlib.Path("\0"), pathlib.PurePosixPath("x"),
               pathlib.Path(__file__)]
    values += [gemma4c.Usage(0, 0, 0, 0, 0, 0), gemma4c.Answer(), gemma4c.ToolResult("a", "b", "c"),
               [gemma4c.ToolResult("", "", "")], gemma4c.Call("", "", {}), gemma4c.Tool({}), gemma4c.MediaOptions(),
               gemma4c.Box("", 1, 1, 1, 1)]
    if importlib.util.find_spec("numpy"):
        import numpy as np
        values += [np.int64(3), np.float32("nan"), np.zeros(0), np.zeros((0, 0, 3), np.uint8), np.zeros((2, 2, 3), np.uint8),
                   np.zeros((2, 2, 5), np.uint8), np.zeros((1, 1, 1, 1, 1)), np.array(object()), np.array([1, None]),
                   np.array("x"), np.zeros(3, "M8[s]"), np.full(5, np.nan), np.zeros(200, np.float64), np.arange(6)[::-2],
                   np.zeros((3, 4), bool), np.zeros((2, 0, 4, 3), np.uint8), np.zeros(2, [("a", "i4")]), np.ma.masked,
                   np.bool_(True), np.zeros((1, 9), np.uint8)]
    return values


# ---- Calls ---------------------------------------------------------------------------------------------------------


def first(items, n=3):
    """A few of an iterator that may be endless."""
    return [item for item, _ in zip(items, range(n))]


def parameters_of(function):
    return [p for p in inspect.signature(function).parameters if p not in ("options", "request", "_pointer")]


def calls(engine, session, folder):
    """Of each public name: what calls it, arguments that are all right, and the parameters of which one is replaced."""
    picture = b"P6 1 1 255 \0\0\0"
    quick = dict(prompt="hi", max_tokens=1)
    user = [{"role": "user", "content": "hi"}]
    respond = parameters_of(session.respond)
    some = ["prompt", "schema", "tools", "timeout", "odd"]

    def completion(**arguments):
        answer = engine.create_chat_completion(**arguments)
        return answer if isinstance(answer, dict) else first(answer)

    def draw(**arguments):
        if "path" in arguments:
            arguments["path"] = in_folder(folder, arguments["path"])
        return gemma4c.draw_boxes(**arguments)

    return {
        "Engine": (lambda **a: gemma4c.Engine(**a).close(), dict(path=engine.path, threads=1),
                   parameters_of(gemma4c.Engine)),
        "Engine.session": (lambda **a: engine.session(**a).close(), {}, parameters_of(engine.session)),
        "Engine.load": (lambda path: engine.load(path), {}, ["path"]),
        "Engine.batch": (lambda **a: first(engine.batch(**a)), dict(prompts=["hi"], max_tokens=1),
                         parameters_of(engine.batch) + respond[1:]),
        "Engine.create_chat_completion": (completion, dict(messages=user, max_tokens=1), [
            "messages", "stream", "tools", "tool_choice", "response_format", "max_tokens", "temperature", "top_p", "seed",
            "stop", "logit_bias", "logprobs", "top_logprobs", "n", "stream_options", "model", "odd"]),
        "Engine.tokenize": (engine.tokenize, dict(text="hi"), ["text", "specials", "bos"]),
        "Engine.count_tokens": (engine.count_tokens, {}, ["text"]),
        "Engine.token_bytes": (engine.token_bytes, dict(token=5), ["token", "skip_special"]),
        "Engine.detokenize": (engine.detokenize, dict(tokens=[5]), ["tokens", "skip_special"]),
        "Engine.logprobs": (engine.logprobs, dict(text="hi"), ["text", "context"]),
        "Engine.score": (engine.score, dict(before=[2], tokens=[5]), ["before", "tokens", "context", "session"]),
        "Engine.perplexity": (engine.perplexity, dict(text="hi"), ["text", "context"]),
        "Engine.load_media": (engine.load_media, {}, ["value"]),
        "Engine.encode": (engine.encode, dict(value=picture), ["value", "max_tokens"]),
        "Session": (lambda **a: gemma4c.Session(**a).close(), dict(engine=engine), parameters_of(gemma4c.Session)),
        "Session.respond": (session.respond, quick, respond),
        "Session.stream": (lambda **a: first(session.stream(**a)), quick, some),
        "Session.respond_async": (lambda **a: run_async(session.respond_async, a), quick, some),
        "Session.stream_async": (lambda **a: run_async(session.stream_async, a), quick, some),
        "Session.complete": (session.complete, quick, parameters_of(session.complete)),
        "Session.eval": (session.eval, {}, ["tokens"]),
        "Session.eval_all": (session.eval_all, dict(tokens=[5]), ["tokens", "row"]),
        "Session.rewind": (session.rewind, {}, ["n"]),
        "Session.save": (lambda path: session.save(in_folder(folder, path)), {}, ["path"]),
        "Answer": (use_answer, {}, ["text", "schema", "calls", "logprobs", "image_size"]),
        "Box": (lambda **a: gemma4c.draw_boxes(b"P6 2 2 255 " + b"\0" * 12, [gemma4c.Box(**a)]),
                dict(label="x", x0=0, y0=0, x1=1, y1=1), ["label", "x0", "y0", "x1", "y1"]),
        "Call": (lambda **a: gemma4c.Call(**a).run(), dict(id="1", name="f", arguments={}, function=dict),
                 ["id", "name", "arguments", "function"]),
        "Call.result": (gemma4c.Call("1", "f", {}).result, {}, ["value"]),
        "MediaOptions": (lambda **a: gemma4c.load_media(picture, gemma4c.MediaOptions(**a)), {},
                         list(gemma4c.MediaOptions._fields)),
        "draw_boxes": (draw, dict(picture=picture, boxes=[gemma4c.Box("x", 0, 0, 1, 1)]), ["picture", "boxes", "path"]),
        "load_media": (gemma4c.load_media, dict(value=picture), ["value", "options"]),
        "schema_of": (gemma4c.schema_of, {}, ["t"]),
        "value_of": (gemma4c.value_of, dict(t=int, text="1"), ["t", "text"]),
        "tool_of": (gemma4c.tool_of, {}, ["tool"]),
        "Tool": (lambda **a: session.respond("hi", tools=[gemma4c.Tool(**a)], max_tokens=1), dict(declaration={}),
                 ["declaration", "function"]),
        "ToolResult": (lambda **a: session.respond(gemma4c.ToolResult(**a), max_tokens=1),
                       dict(id="a", name="b", content="c"), ["id", "name", "content"]),
    }


def in_folder(folder, path):
    """Odd names of files to write, but nothing is written elsewhere."""
    if isinstance(path, bytes):
        return os.path.join(folder.encode(), os.path.basename(path)) if path else path
    if isinstance(path, (str, pathlib.PurePath)):
        return os.path.join(folder, os.path.basename(str(path)))
    return path


def use_answer(**arguments):
    answer = gemma4c.Answer(**arguments)
    if "text" in arguments or "schema" in arguments:
        answer.parsed
    if "image_size" in arguments:
        answer.boxes


def run_async(function, arguments):
    import asyncio

    async def main():
        called = function(**arguments)
        if inspect.isawaitable(called):
            return await called
        return [piece async for piece in called]
    return asyncio.run(main())


# Names that take nothing, or that others return and nobody makes.
PLAIN = {"__version__", "isas", "EngineInfo", "TokenLogprob", "Usage", "Piece", "Media", "Stream", "AsyncStream"}


def public_names():
    names = {n for n in gemma4c.__all__ if n not in PLAIN and not n.endswith("Error")} - {"Canceled", "OutOfMemory"}
    for kind in (gemma4c.Engine, gemma4c.Session, gemma4c.Call):
        for name, value in vars(kind).items():
            if not name.startswith("_") and inspect.isfunction(value) and len(inspect.signature(value).parameters) > 1:
                names.add(f"{kind.__name__}.{name}")
    return names


def main(only):
    """In a process of its own: prints each name with its calls, and what was not as expected. The first parameter of each
    gets all values, the others take turns; where names are given, or "all", all parameters get all."""
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    engine = gemma4c.Engine(threads=1)
    session = engine.session(context=512)
    table = calls(engine, session, os.getcwd())
    missing = public_names() - set(table)
    if missing:
        print("WRONG", "no odd values for", ", ".join(sorted(missing)))
    total = 0
    for name, (function, good, parameters) in table.items():
        if only and name not in only and "all" not in only:
            continue
        count = 0
        for k, parameter in enumerate(parameters):
            for i, value in enumerate(odd_values()):
                if k > 0 and not only and (i + k) % EVERY != 0:
                    continue
                session.messages = []
                print("AT", name, parameter, i, flush=True)
                try:
                    session.rewind(0)
                    function(**{**good, parameter: value})
                except EXPECTED:
                    pass
                except LookupError as e:  # what the odd value itself raises, the caller sees
                    if "odd" not in str(e):
                        print("WRONG", name, parameter, i, type(e).__name__, e)
                except BaseException as e:
                    print("WRONG", name, parameter, i, type(e).__name__, str(e)[:100])
                count += 1
        total += count
        print("DONE", name, count, flush=True)
    assert str(engine.session().respond("What is the opposite of hot?", temperature=0)) == "The opposite of hot is cold."
    print("ALL", total, "calls with", len(odd_values()), "values")


class Odd(unittest.TestCase):
    def test_odd_values(self):
        self.assertGreaterEqual(len(odd_values()), 200)
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path if p),
               "PYTHONFAULTHANDLER": "1"}
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([sys.executable, os.path.abspath(__file__)], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, env=env, cwd=folder, timeout=600,
                                  stdin=subprocess.DEVNULL)
        lines = done.stdout.splitlines()
        last = next((line for line in reversed(lines) if line.startswith("AT")), "")
        self.assertEqual(done.returncode, 0, f"ended {last}: {done.stderr[-3000:]}")
        self.assertEqual([line for line in lines if line.startswith("WRONG")][:20], [])
        print("   " + lines[-1])


if __name__ == "__main__":
    main(sys.argv[1:])
