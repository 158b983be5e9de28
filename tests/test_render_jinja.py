#!/usr/bin/env python3
"""Random conversations through the C renderer and through jinja2 with the official templates: the same bytes, the same refusals
(but those that load() names).

usage: test_render_jinja.py DRIVER [--n N] [--seed S] [--shared DIR]
       test_render_jinja.py --write tests/data/chat_render.jsonl
DRIVER is build/render_lines. The templates lie in DIR/gemma4-tokenizer (default ../shared); without them the test is skipped.
--write makes the golden cases of tests/test_chat.c: conversations of this generator and what the templates make of them.
"""
import argparse
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterable

TEMPLATES = {
    "31b-2026-07": "chat_template.jinja",
    "e2b-2026-07": "templates/e2b-2026-07.jinja",
    "31b-2026-04": "templates/31b-2026-04.jinja",
}
WORDS = ["river", "Ωmega", "ΟΔΟΣ", "sum", "Straße", "İstanbul", "zebra", "Äpfel", "äther", "x", "名前", "🙂", "a b", "", " lead", "trail ",
         "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|\"|>", "<|image|>", "don't", "say \"hi\"", "tab\t", "\n", "\u00a0", "\u2028",
         "null", "true", "1.5", "{\"a\": 1}", "thought", "\x1c", "a\\b", "<|tool_call>call:f{}<tool_call|>"]
KEYS = ["a", "B", "b", "A", "name", "Name", "type", "description", "properties", "required", "nullable", "items", "enum", "Zeit", "zeit",
        "Ä", "ä", "Éclair", "Σ", "ς", "ΑΣ", "ας", "city name", "x1", "format", "minimum", "default", "日本"]
NUMBERS = [0, -0.0, 1, -1, 42, 1.0, 0.1, -2.5, 1e16, 1e15, 123456789012345678, 1.5e-5, 1e-4, 0.0001234, 1e22, 1e300, 5e-324, 3.14159,
           12345678901234567890123, 100000.0, 1e21, 2.0**53, 1 / 3]


class Gen:
    def __init__(self, rng):
        self.r = rng

    def chance(self, p):
        return self.r.random() < p

    def text(self, n=4):
        return " ".join(self.r.choice(WORDS) for _ in range(self.r.randint(0, n))) + ("" if self.chance(0.8) else " \n")

    def value(self, depth=0):
        k = self.r.random()
        if k < 0.35 or depth > 3:
            return self.text(2)
        if k < 0.55:
            return self.r.choice(NUMBERS)
        if k < 0.65:
            return self.chance(0.5)
        if k < 0.72:
            return None
        if k < 0.86:
            return [self.value(depth + 1) for _ in range(self.r.randint(0, 3))]
        return self.map(depth + 1)

    def map(self, depth=0):
        return {self.r.choice(KEYS): self.value(depth) for _ in range(self.r.randint(0, 4))}

    def type(self):
        return self.r.choice(["string", "String", "array", "object", "OBJECT", "integer", "boolean", ["string", "null"], ["a'b", "c"], None, 3, "ß"])

    def prop(self, depth=0):
        p = {}
        if self.chance(0.9):
            p["type"] = self.type()
        if self.chance(0.6):
            p["description"] = self.text() if self.chance(0.95) else self.value()
        if self.chance(0.3):
            p["enum"] = [self.value(3) for _ in range(self.r.randint(0, 3))]
        if self.chance(0.4) and depth < 3:
            p["items"] = self.prop(depth + 1) if self.chance(0.9) else self.value()
        if self.chance(0.4) and depth < 3:
            p["properties"] = self.props(depth + 1) if self.chance(0.93) else self.r.choice([None, {}, [], "x"])
        if self.chance(0.4):
            p["required"] = self.r.sample(KEYS, 2) if self.chance(0.9) else self.r.choice([[], None, "ab", {"k": 1}])
        if self.chance(0.2):
            p["nullable"] = self.chance(0.7)
        if self.chance(0.3):
            p[self.r.choice(KEYS)] = self.value()
        items = list(p.items())
        self.r.shuffle(items)
        return dict(items)

    def props(self, depth=0):
        return {self.r.choice(KEYS): (self.prop(depth) if self.chance(0.97) else self.value()) for _ in range(self.r.randint(0, 4))}

    def tool(self):
        f = {"name": self.r.choice(["get_time", "add", "f"]), "description": self.text()}
        if self.chance(0.85):
            params = {"type": "object", "properties": self.props(), "required": self.r.sample(KEYS, self.r.randint(0, 2))}
            for k in list(params):
                if self.chance(0.12):
                    del params[k]
            f["parameters"] = params
        if self.chance(0.2):
            f["response"] = {"description": self.text(1), "type": self.type()}
        for k in list(f):
            if self.chance(0.03):
                del f[k]
        return {"type": "function", "function": f} if self.chance(0.98) else self.r.choice([{}, f, "f"])

    def part(self):
        k = self.r.random()
        if k < 0.6:
            return {"type": "text", "text": self.text()} if self.chance(0.97) else {"type": "text"}
        kind = self.r.choice(["image", "image_url", "audio", "input_audio", "video", "other"])
        return {"type": kind, kind: "file"} if self.chance(0.98) else self.r.choice(["bare", {"text": "x"}, 3])

    def content(self):
        k = self.r.random()
        if k < 0.6:
            return self.text()
        if k < 0.94:
            return [self.part() for _ in range(self.r.randint(0, 3))]
        return self.r.choice([None, "", [], {}, 7, True])

    def call(self):
        f = {"name": self.r.choice(["get_time", "add", "f"]), "arguments": self.map()}
        k = self.r.random()
        if k < 0.04:
            f["arguments"] = self.r.choice([None, "{\"a\": 1}", [], 3])
        elif k < 0.05:
            del f["arguments"]
        elif k < 0.06:
            f["name"] = None
        c = {"type": "function", "function": f}
        if self.chance(0.7):
            c["id"] = self.r.choice(["c1", "c2", "c3", 1])
        return c

    def message(self):
        role = self.r.choices(["user", "assistant", "tool", "system", "developer", "model", "critic"], [30, 36, 26, 3, 2, 2, 1])[0]
        m = {"role": role}
        if self.chance(0.92):
            m["content"] = self.content()
        if role == "tool":
            if self.chance(0.7):
                m["tool_call_id"] = self.r.choice(["c1", "c2", "c3", 1, None])
            if self.chance(0.4):
                m["name"] = self.r.choice(["get_time", "", None, "g"])
        elif role in ("assistant", "model") or self.chance(0.05):
            if self.chance(0.45):
                m["tool_calls"] = [self.call() for _ in range(self.r.randint(0, 3))]
            if self.chance(0.12):
                m["tool_responses"] = [self.r.choice([{"name": "f", "response": self.value()}, {"response": self.map()}, {"name": "f"}])
                                       for _ in range(self.r.randint(0, 2))]
            if self.chance(0.35):
                m[self.r.choice(["reasoning", "reasoning_content"])] = self.text() if self.chance(0.97) else self.value()
        if self.chance(0.01):
            m["role"] = self.r.choice([None, 3])
        return m

    def conversation(self):
        messages = []
        if self.chance(0.4):
            messages.append({"role": self.r.choice(["system", "developer"]), "content": self.text() if self.chance(0.7) else self.content()})
        messages += [self.message() for _ in range(self.r.randint(0, 7))]
        c = {"messages": messages}
        if self.chance(0.4):
            c["tools"] = [self.tool() for _ in range(self.r.randint(0, 3))]
        for k in ("enable_thinking", "add_generation_prompt", "preserve_thinking"):
            if self.chance(0.7):
                c[k] = self.chance(0.5) if self.chance(0.95) else None
        return c


def environment():
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    def members(value):
        return value if isinstance(value, Iterable) else ()

    @jinja2.pass_context
    def members_map(context, value, *args):
        return jinja2.filters.do_map(context, members(value), *args)

    env.globals["raise_exception"] = raise_exception
    env.filters.update(members=members, map=members_map)
    return env


def load(env, path):
    """The template, but for one thing: where a tool's `required` or the type of its `items` is what Python cannot iterate, such as
    the true of JSON Schema's draft 3, the template raises, and here it is a list of nothing: one keyword stops no conversation."""
    with open(path, encoding="utf-8") as f:
        text = f.read()
    text, n = re.subn(r"( in (?:item_value|(?:value|params)\['required'\](?: \| default\(\[\]\))?)) -%}", r"\1 | members -%}", text)
    assert n == 3, f"{path}: {n} loops over required, not 3"
    return env.from_string(text)


def reference(template, c):
    """The prompt, or None when the template refuses. Message members that are null count as absent."""
    args = {k: v for k, v in c.items() if v is not None}
    args["messages"] = [{k: v for k, v in m.items() if v is not None} for m in c["messages"]]
    try:
        return template.render(bos_token="<bos>", **args)
    except Exception:
        return None


def write(path, env, folder):
    """40 conversations for each template, none longer than 4 KB."""
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        for seed, (name, file) in enumerate(TEMPLATES.items()):
            template = load(env, os.path.join(folder, file))
            g = Gen(random.Random(1000 + seed))
            left = 40
            while left > 0:
                c = g.conversation()
                c["template"] = name
                c["prompt"] = reference(template, {k: v for k, v in c.items() if k != "template"})
                line = json.dumps(c, ensure_ascii=False)
                if len(line) < 4096:
                    out.write(line + "\n")
                    left -= 1


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("driver", nargs="?")
    ap.add_argument("--write")
    ap.add_argument("--n", type=int, default=4000)
    ap.add_argument("--seed", type=int, default=7)
    ap.add_argument("--shared", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "shared"))
    a = ap.parse_args()
    folder = os.path.join(a.shared, "gemma4-tokenizer")
    if not os.path.isdir(folder):
        print("skipped: no templates here\n0 passed, 0 failed, 1 skipped")
        return 0
    env = environment()
    if a.write:
        write(a.write, env, folder)
        return 0
    passed = failed = 0
    for name, path in TEMPLATES.items():
        template = load(env, os.path.join(folder, path))
        g = Gen(random.Random(a.seed))
        conversations = [g.conversation() for _ in range(a.n)]
        lines = "".join(json.dumps(c, ensure_ascii=g.chance(0.5)) + "\n" for c in conversations)
        run = subprocess.run([a.driver, name], input=lines.encode(), stdout=subprocess.PIPE, check=True)
        got = [json.loads(line) for line in run.stdout.decode().split("\n")[:-1]]
        refused = wrong = 0
        for c, r in zip(conversations, got, strict=True):
            want = reference(template, c)
            refused += want is None
            if r.get("prompt") == want and (want is not None or r["error"]):
                passed += 1
                continue
            failed += 1
            wrong += 1
            if wrong <= 3:
                print(name, json.dumps(c, ensure_ascii=False), "\n  want", repr(want), "\n  got ", repr(r))
        print(f"{name}: {len(got)} conversations, {refused} refused by the template, {wrong} differ")
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
