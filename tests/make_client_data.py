#!/usr/bin/env python3
"""tests/data/requests.tsv from what clients sent: make_client_data.py build/clients/requests.jsonl > tests/data/requests.tsv

The form of each request stays, every field and part of it; what stands in its texts is the client's author's or the user's, so that is
replaced by words of our own, and pictures and sounds by small ones. Requests of the same form are kept once. Columns: client, path, 1 for a
stream, status, body."""
import base64
import json
import re
import sys

TEXTS = {"content", "text", "input", "instructions", "system", "description", "prompt", "title", "reasoning_content"}


def small_picture():
    """8 x 8 grey pixels."""
    return base64.b64encode(b"P5 8 8 255\n" + bytes(range(64))).decode()


def small_sound():
    """A tenth of a second of silence."""
    n = 3200
    head = b"RIFF" + (36 + n).to_bytes(4, "little") + b"WAVEfmt " + bytes([16, 0, 0, 0, 1, 0, 1, 0, 0x80, 0x3e, 0, 0, 0, 0x7d, 0, 0, 2, 0, 16, 0])
    return base64.b64encode(head + b"data" + n.to_bytes(4, "little") + bytes(n)).decode()


def ours(value, key=""):
    if isinstance(value, dict):
        return {k: ours(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [ours(v, key) for v in value]
    if not isinstance(value, str):
        return value
    if value.startswith("data:"):
        return "data:image/x-portable-graymap;base64," + small_picture()
    if key == "data":
        return small_sound() if value.startswith("UklGR") else small_picture()
    return "What is the opposite of hot?" if key in TEXTS else value


def form(value):
    """Equal for requests that differ in their texts and numbers alone."""
    if isinstance(value, dict):
        return {k: form(v) for k, v in sorted(value.items())}
    if isinstance(value, list):
        return [form(v) for v in value]
    return value if isinstance(value, (bool, type(None))) else type(value).__name__


def main():
    seen = set()
    with open(sys.argv[1], encoding="utf-8") as f:
        for line in f:
            r = json.loads(line)
            body = ours(r["body"])
            key = json.dumps([r["client"], r["path"], r["stream"], r["status"], form(body)])
            if key in seen or r["status"] not in (200, 400):
                continue
            seen.add(key)
            if not any(k in body for k in ("max_tokens", "max_completion_tokens", "max_output_tokens")) and r["status"] == 200 and "count" not in r["path"]:
                body["max_output_tokens" if "responses" in r["path"] else "max_tokens"] = 24
            path = re.sub(r"\?.*", "", r["path"])
            print(r["client"], path, int(r["stream"]), r["status"], json.dumps(body), sep="\t")


if __name__ == "__main__":
    main()
