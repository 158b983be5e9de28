#!/usr/bin/env python3
"""Scores of the tiny model on held-out questions, skill by skill.

    python3 tools/eval_tiny.py --base BASE --model models/tiny.g4 [--n 200] [--kv f16|f32|q8_0]     with the C engine
    python3 tools/eval_tiny.py --base BASE --hf HF [--n 40]                    with transformers, float32, eager attention
    python3 tools/eval_tiny.py --base BASE --check-template PATH               our renderer against the official template

BASE is the folder of `tools/tiny_data.py base`. The engine is reached through build/answer_lines (make build/answer_lines).
Every question is of the held-out part (tiny_data.held_out, chapters, or seeds that training never drew); the answer is
the most likely token each time. An answer counts when it is exactly the expected text, except: boxes are scored by the
intersection over union with the drawn ones, labels in order, and speech by word error rate.
"""

import argparse
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tools"))
import tiny_data as D  # noqa: E402

SKILLS = ["chat", "sum", "think", "tool", "use", "scene", "ask", "count", "read", "box", "see-tool", "speech", "video", "video-sound"]


def samples(maker, skill, n, folder):
    """n questions of a skill: dicts of prompt segments, expected text and media files."""
    rng = random.Random(f"held out/{skill}")
    out = []
    while len(out) < n:
        media = {}
        if skill in ("chat", "sum", "think", "tool", "use"):
            seg = D.text_sample(rng, True)
        elif skill == "speech":
            y, text = D.spoken(rng, maker.speaker, True)
            seg = D.head(rng) + D.ask(("aud", 0), rng.choice(D.ASK_SPEECH)) + D.say(text, "speech")
            media["aud", 0] = y
        elif skill.startswith("video"):
            w, h = rng.choice(D.CLIP_SIZES)
            frames = rng.choice([4, 5])
            ims, text, _, _ = D.moving(rng, w, h, frames)
            d, parts = rng.randint(0, 9), []
            for k, im in enumerate(ims):
                parts += [(f"{' ' if k else ''}00:{k:02d} ", 0), ("vid", k)]
                media["vid", k] = im
            if skill == "video-sound":
                media["aud", 0], _ = D.spoken(rng, maker.speaker, True, d)
                seg = [("<bos>", 0)] + D.ask(*parts, ("aud", 0), rng.choice(D.ASK_DIGIT)) + D.say(f"The digit is {d}.", skill)
            else:
                seg = [("<bos>", 0)] + D.ask(*parts, rng.choice(D.ASK_VIDEO)) + D.say(text, skill)
        else:
            kind = {"read": "text", "see-tool": "tool"}.get(skill, "scene")
            w, h = rng.choice(D.MIXED_SIZES + (D.TEXT_SIZES if kind == "text" else []))
            seg, im = D.picture_sample(rng, w, h, True, kind)
            media["img", 0] = im
        last = max(i for i, (a, t) in enumerate(seg) if t and a not in ("img", "aud", "vid"))
        if D.TASKS[seg[last][1]] != skill:
            continue
        text = seg[last][0]
        for end in ("<turn|>", "<|tool_response>"):
            text = text.removesuffix(end)
        out.append({"segments": seg[:last], "expect": text, "media": media})
    for i, s in enumerate(out):
        s["files"] = {}
        for (kind, k), v in s["media"].items():
            name = os.path.join(folder, f"{skill}{i}_{k}")
            if kind == "img":
                v.save(name + ".png", compress_level=1)
                s["files"]["img"] = name + ".png"
            elif kind == "aud":
                D.write_wav(name + ".wav", v)
                s["files"]["aud"] = name + ".wav"
        frames = [v for (kind, k), v in s["media"].items() if kind == "vid"]
        if frames:
            s["files"]["vid"] = os.path.join(folder, f"{skill}{i}.y4m")
            D.write_y4m(s["files"]["vid"], frames, k444=True)
    return out


def arguments(text):
    out = {}
    for k, v, s in re.findall(r'(\w+):(<\|"\|>(.*?)<\|"\|>|true|false|-?[\d.]+)', text):
        out[k] = s if v.startswith("<") else json.loads(v)
    return out


def conversation(s, files):
    """The prompt of a sample as the chat template takes it."""
    text = ""
    for a, b in s["segments"]:
        text += f"\0{a}\0" if a in ("img", "aud", "vid") else a
    text = re.sub(r"(?: ?\d\d:\d\d \0vid\0)+", "\0vid\0", text)
    doc = {"messages": [], "add_generation_prompt": True}
    for role, body in re.findall(r"<\|turn>(\w+)\n(.*?)(?:<turn\|>\n|$)", text.removeprefix("<bos>"), re.S):
        if role == "system":
            if body.startswith("<|think|>\n"):
                doc["enable_thinking"], body = True, body[10:]
            names = re.findall(r"<\|tool>declaration:(\w+)", body)
            if names:
                doc["tools"] = [D.TOOLS[n] for n in names]
            body = body.split("<|tool>")[0]
            if body:
                doc["messages"].append({"role": "system", "content": body})
        elif role == "user":
            parts = []
            for p in re.split("\0(img|aud|vid)\0", body):
                if p in ("img", "aud", "vid"):
                    parts.append({"type": {"img": "image", "aud": "audio", "vid": "video"}[p], "path": files[p]})
                elif p:
                    parts.append({"type": "text", "text": p})
            doc["messages"].append({"role": "user", "content": parts if len(parts) > 1 else body})
        elif body:
            m = re.match(r"(?:<\|channel>thought\n(.*?)\n<channel\|>)?<\|tool_call>call:(\w+)\{(.*?)\}<tool_call\|><\|tool_response>"
                         r"response:\w+\{(.*?)\}<tool_response\|>", body, re.S)
            if m:
                turn = {"role": "assistant", "tool_calls": [{"function": {"name": m[2], "arguments": arguments(m[3])}}],
                        "tool_responses": [{"name": m[2], "response": arguments(m[4])}]}
                if m[1]:
                    turn["reasoning"] = m[1]
                doc["messages"].append(turn)
            else:
                doc["messages"].append({"role": "assistant", "content": body})
    return doc


def boxes(text):
    try:
        return [(b["label"], b["box_2d"]) for b in json.loads(text.strip().removeprefix("```json").removesuffix("```"))]
    except (ValueError, KeyError, TypeError):
        return []


def overlap(a, b):
    y = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    x = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = lambda v: (v[2] - v[0]) * (v[3] - v[1])  # noqa: E731
    return x * y / max(1, area(a) + area(b) - x * y)


def distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        prev, row[0] = row[0], i + 1
        for j, y in enumerate(b):
            prev, row[j + 1] = row[j + 1], min(row[j + 1] + 1, row[j] + 1, prev + (x != y))
    return row[-1]


def score(skill, pairs):
    """A line of results for (expected, found) pairs."""
    right = sum(e == f for e, f in pairs)
    out = {"exact": round(100 * right / len(pairs), 1), "n": len(pairs)}
    if skill == "box":
        v = []
        for e, f in pairs:
            want, got = boxes(e), boxes(f)
            v += [overlap(w[1], got[i][1]) if i < len(got) and got[i][0] == w[0] and len(got[i][1]) == 4 else 0 for i, w in enumerate(want)]
        out["mean IoU"], out["boxes"] = round(float(np.mean(v)), 3), len(v)
    if skill == "speech":
        out["word errors %"] = round(100 * sum(distance(e.split(), f.split()) for e, f in pairs) / sum(len(e.split()) for e, _ in pairs), 2)
    if skill == "read":
        out["words exact %"] = round(100 * sum(a == b for e, f in pairs for a, b in zip(e.split(), f.split() + [""] * 9)) /
                                     sum(len(e.split()) for e, _ in pairs), 1)
    return out


def with_engine(program, model, kv, isa, items):
    lines = "".join(json.dumps(conversation(s, s["files"])) + "\n" for s in items)
    cmd = [program, model] + ([kv] + ([isa] if isa else []) if kv or isa else [])
    done = subprocess.run(cmd, input=lines, capture_output=True, text=True, check=True).stdout
    out = [json.loads(x) for x in done.strip().split("\n")]
    for o in out:
        if "error" in o:
            raise SystemExit("answer_lines: " + o["error"])
    return [o["answer"] for o in out]


class Reference:
    def __init__(self, hf, maker):
        import torch
        from transformers import Gemma4AudioFeatureExtractor, Gemma4ForConditionalGeneration
        from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
        self.torch, self.maker = torch, maker
        self.model = Gemma4ForConditionalGeneration.from_pretrained(hf, dtype=torch.float32, attn_implementation="eager").eval()
        self.images, self.sounds = Gemma4ImageProcessorPil(max_soft_tokens=D.BUDGET), Gemma4AudioFeatureExtractor()

    def answer(self, s):
        torch, kw, count = self.torch, {}, {}
        pics = [(k, v) for k, v in s["media"].items() if k[0] in ("img", "vid")]
        if pics:
            x = self.images([v for _, v in pics], return_tensors="pt")
            count.update({k: int(n) for (k, _), n in zip(pics, x["num_soft_tokens_per_image"])})
            if pics[0][0][0] == "img":
                kw.update(pixel_values=x["pixel_values"], image_position_ids=x["image_position_ids"])
            else:
                kw.update(pixel_values_videos=x["pixel_values"], video_position_ids=x["image_position_ids"],
                          num_frames_per_video=torch.tensor([len(pics)]))
        for k, v in s["media"].items():
            if k[0] == "aud":
                x = self.sounds([v.astype(np.float32) / 32768], return_tensors="pt")
                kw.update(input_features=x["input_features"], input_features_mask=x["input_features_mask"])
                count[k] = D.sound_tokens(len(v))
        ids, _, _ = self.maker.tokens(s["segments"], count)
        with torch.no_grad():
            got = self.model.generate(input_ids=torch.tensor([ids]), max_new_tokens=200, do_sample=False,
                                      eos_token_id=[D.EOS, D.TURN_END, D.TOOL_RESPONSE], pad_token_id=D.PAD, **kw)[0, len(ids):].tolist()
        while got and got[-1] in (D.EOS, D.TURN_END, D.TOOL_RESPONSE, D.PAD):
            got.pop()
        return self.maker.tok.decode(got)

    def perplexity(self, text):
        torch, ids = self.torch, [D.BOS] + list(self.maker.tok.encode(text))
        total = n = 0
        for at in range(0, len(ids) - 1, 256):
            part = torch.tensor([ids[max(0, at - 256):at + 257]])
            fresh = len(ids[at + 1:at + 257])
            with torch.no_grad():
                z = self.model(input_ids=part[:, :-1]).logits[0, -fresh:].log_softmax(-1)
            total -= float(z.gather(1, part[0, -fresh:, None]).sum())
            n += fresh
        return math.exp(total / n), n


def check_template(path, maker, folder):
    import jinja2
    env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    env.globals["raise_exception"] = lambda m: (_ for _ in ()).throw(ValueError(m))
    with open(path, encoding="utf-8") as f:
        template = env.from_string(f.read())
    bad = total = 0
    for skill in SKILLS:
        for s in samples(maker, skill, 40, folder):
            doc = conversation(s, s["files"])
            want = template.render(bos_token="<bos>", **doc)
            ours = "".join({"img": "<|image|>", "aud": "<|audio|>"}.get(a, "") if a in ("img", "aud", "vid") else a for a, _ in s["segments"])
            if any(a == "vid" for a, _ in s["segments"]):
                ours = re.sub(r"( ?\d\d:\d\d )+", "<|video|>", ours, count=1)
            total += 1
            if ours != want:
                bad += 1
                print("differs:", skill, repr(ours), repr(want), sep="\n")
    print(f"{total - bad} passed, {bad} failed")
    return bad > 0


def write_tests(maker, program, models, folder):
    """tests/data/tiny.jsonl and its media: questions that every model answers rightly, by a margin above 0.5."""
    keep = os.path.join(ROOT, "tests", "data", "tiny")
    os.makedirs(keep, exist_ok=True)
    with open(os.path.join(ROOT, "tests", "data", "tiny.jsonl"), "w", encoding="utf-8") as f:
        for skill in SKILLS:
            items = samples(maker, skill, 12, folder)
            lines = "".join(json.dumps(conversation(s, s["files"])) + "\n" for s in items)
            found = [[json.loads(x) for x in subprocess.run([program, m], input=lines, capture_output=True, text=True, check=True).stdout.strip().split("\n")]
                     for m in models]
            left = {"tool": 4, "use": 3, "read": 3, "scene": 3}.get(skill, 2)
            for i, s in enumerate(items):
                answers = {x[i]["answer"] for x in found}
                right = answers == {s["expect"]} or (skill == "box" and len(answers) == 1 and score(skill, [(s["expect"], *answers)])["mean IoU"] > .8)
                if left and right and min(x[i]["margin"] for x in found) > .5:
                    left -= 1
                    files = {}
                    for kind, path in s["files"].items():
                        name = os.path.join(keep, os.path.basename(path))
                        if kind == "vid":
                            D.write_y4m(name, [v for (k, _), v in s["media"].items() if k == "vid"], k444=True)
                        elif kind == "img":
                            s["media"]["img", 0].save(name, optimize=True)
                        else:
                            shutil.copy(path, name)
                        files[kind] = os.path.relpath(name, ROOT)
                    f.write(json.dumps(conversation(s, files)) + "\n" + c_quote(*answers) + "\n")
            print(skill, "short of", left, "questions")


def c_quote(text):
    """A JSON string as the engine writes it."""
    return json.dumps(text, ensure_ascii=False)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base", required=True)
    p.add_argument("--model", help="a .g4 file, for the C engine")
    p.add_argument("--hf", help="a Hugging Face folder, for transformers")
    p.add_argument("--program", default=os.path.join(ROOT, "build", "answer_lines"))
    p.add_argument("--kv", default="")
    p.add_argument("--isa", default="")
    p.add_argument("--n", type=int, default=200)
    p.add_argument("--skills", default=",".join(SKILLS))
    p.add_argument("--no-text", action="store_true", help="leave the perplexity out")
    p.add_argument("--check-template", metavar="PATH")
    p.add_argument("--write-tests", nargs="+", metavar="MODEL", help="make tests/data/tiny.jsonl from what these files all answer rightly")
    a = p.parse_args()
    maker = D.Maker(a.base + "/tokenizer.json", a.base + "/corpus.txt")
    with tempfile.TemporaryDirectory() as folder:
        if a.check_template:
            sys.exit(check_template(a.check_template, maker, folder))
        if a.write_tests:
            write_tests(maker, a.program, a.write_tests, folder)
            return
        reference = Reference(a.hf, maker) if a.hf else None
        if not a.no_text:
            text = "\n\n".join(maker.test_text[::10])
            if reference:
                print("text", "perplexity %.2f on %d tokens, windows of 512 that overlap by half" % reference.perplexity(text), flush=True)
            else:
                file = os.path.join(folder, "text.txt")
                with open(file, "w", encoding="utf-8") as f:
                    f.write(text)
                run = subprocess.run([os.path.join(ROOT, "gemma4"), "perplexity", "-m", a.model, "-f", file, "-c", "512"], capture_output=True, text=True)
                print("text", run.stdout.strip() or run.stderr.strip(), flush=True)
        for skill in a.skills.split(","):
            items = samples(maker, skill, a.n, folder)
            got = [reference.answer(s) for s in items] if reference else with_engine(a.program, a.model, a.kv, a.isa, items)
            print(skill, json.dumps(score(skill, [(s["expect"], g) for s, g in zip(items, got)])), flush=True)


if __name__ == "__main__":
    main()
