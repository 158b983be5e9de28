#!/usr/bin/env python3
"""Clients that people use, as they come from PyPI, against gemma4 serve with the bundled model.

usage: test_clients.py GEMMA4 [CLIENT...]
Each client is a function; one that is not installed counts as skipped. `make test-clients` makes a virtual environment for them.
What the clients send is kept in build/clients/requests.jsonl: a proxy stands between."""
import base64
import http.client
import http.server
import importlib.metadata
import json
import os
import re
import socketserver
import subprocess
import sys
import tempfile
import threading
import typing

import score

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
EXAMPLES = os.path.join(ROOT, "examples")
MODEL = "tiny"
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}}}
COLD = {"temperature": 0}
HOT = [{"role": "user", "content": "What is the opposite of hot?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
expect = score.expect


def data_url(name, kind):
    with open(os.path.join(EXAMPLES, name), "rb") as f:
        return f"data:{kind};base64," + base64.b64encode(f.read()).decode()


# ---- What is between ------------------------------------------------------------------------------------------------------------

class Recorder(http.server.BaseHTTPRequestHandler):
    """Passes everything on, and keeps what was asked."""
    protocol_version = "HTTP/1.1"
    target = None
    client = ""
    kept = []

    def log_message(self, *args):
        pass

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fields = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection", "accept-encoding")}
        c = http.client.HTTPConnection(*self.target)
        c.request(self.command, self.path, body or None, fields)
        r = c.getresponse()
        stops, pieces = r.getheader("Content-Type", "").startswith("text/event-stream"), []
        self.send_response(r.status)
        self.send_header("Content-Type", r.getheader("Content-Type", ""))
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while piece := r.read1(65536):
            pieces.append(piece)
            self.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        if body and self.headers.get("Content-Type", "").startswith("application/json"):
            self.kept.append({"client": self.client, "path": self.path, "status": r.status, "stream": stops, "body": json.loads(body)})
        c.close()

    do_GET = do_POST = pass_on


class Proxy(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


# ---- Clients ----------------------------------------------------------------------------------------------------------------

def client_openai(url):
    import openai
    import pydantic

    class City(pydantic.BaseModel):
        name: typing.Literal["Oslo", "Paris", "Rome"]
        size: int

    c = openai.OpenAI(base_url=url, api_key="none")
    chat = c.chat.completions
    expect(len(c.models.list().data) == 1, "openai: models")
    r = chat.create(model=MODEL, messages=HOT, temperature=0)
    expect("cold" in r.choices[0].message.content and r.choices[0].finish_reason == "stop", "openai: chat")
    pieces = list(chat.create(model=MODEL, messages=HOT, temperature=0, stream=True, stream_options={"include_usage": True}))
    text = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
    expect(text == r.choices[0].message.content and pieces[-1].usage.completion_tokens > 0, "openai: a stream says the same, with usage")
    with chat.stream(model=MODEL, messages=HOT, temperature=0) as stream:
        final = [e for e in stream][-1]
    expect(final is not None, "openai: events of a stream")
    parsed = chat.parse(model=MODEL, messages=[{"role": "user", "content": "A city."}], response_format=City).choices[0].message.parsed
    expect(isinstance(parsed, City), f"openai: parse: {parsed}")
    for choice in ("auto", "required", {"type": "function", "function": {"name": "get_weather"}}):
        m = chat.create(model=MODEL, messages=WEATHER, tools=[TOOL], tool_choice=choice, temperature=0).choices[0]
        calls = m.message.tool_calls or []
        name = choice if isinstance(choice, str) else "named"
        expect(choice == "auto" or (len(calls) >= 1 and "city" in json.loads(calls[0].function.arguments)), f"openai: tools, {name}")
        expect((m.finish_reason == "tool_calls") == bool(calls), f"openai: tools, {name}: {m.finish_reason}")
    talk = WEATHER + [m.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"}]
    expect(chat.create(model=MODEL, messages=talk, tools=[TOOL]).choices[0].message is not None, "openai: a result comes back")
    parts = [{"type": "image_url", "image_url": {"url": data_url("scene.png", "image/png")}}, {"type": "text", "text": "Describe the picture."}]
    said = chat.create(model=MODEL, messages=[{"role": "user", "content": parts}], temperature=0).choices[0].message.content
    expect(len(said) > 0, f"openai: a picture: {said}")
    sound = data_url("speech.wav", "audio/wav").split(",")[1]
    parts = [{"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}, {"type": "text", "text": "Transcribe the speech."}]
    said = chat.create(model=MODEL, messages=[{"role": "user", "content": parts}], temperature=0).choices[0].message.content
    expect(len(said) > 0, f"openai: a sound: {said}")
    r = chat.create(model=MODEL, messages=HOT, logprobs=True, top_logprobs=3, temperature=0).choices[0].logprobs.content
    expect(len(r) > 0 and len(r[0].top_logprobs) == 3 and r[0].logprob <= 0, "openai: logprobs")
    r = c.completions.create(model=MODEL, prompt="Once upon a", max_tokens=5, logprobs=2, echo=True)
    expect(r.choices[0].text.startswith("Once upon a") and len(r.choices[0].logprobs.tokens) > 5, "openai: completions with echo and logprobs")
    texts = {0: "", 1: ""}
    for p in c.completions.create(model=MODEL, prompt=["Once upon a", "The"], max_tokens=5, echo=True, stream=True):
        for choice in p.choices:
            texts[choice.index] += choice.text
    expect(texts[0].startswith("Once upon a") and texts[1].startswith("The") and len(texts[1]) > 3, f"openai: several completions in one stream: {texts}")
    try:
        chat.create(model=MODEL, messages=HOT, temperature=-1)
        expect(False, "openai: a bad value is refused")
    except openai.BadRequestError as e:
        expect(e.param == "temperature" and "temperature" in e.message, "openai: a bad value is refused by its name")
    r = c.responses.create(model=MODEL, input="What is the opposite of hot?", temperature=0)
    expect("cold" in r.output_text, "openai: responses")
    events = [e.type for e in c.responses.create(model=MODEL, input="What is the opposite of hot?", temperature=0, stream=True)]
    expect(events[0] == "response.created" and events[-1] == "response.completed", "openai: events of responses")
    expect(isinstance(c.responses.parse(model=MODEL, input="A city.", text_format=City).output_parsed, City), "openai: responses, parse")
    with open(os.path.join(EXAMPLES, "speech.wav"), "rb") as f:
        r = c.audio.transcriptions.create(model=MODEL, file=f, response_format="verbose_json")
    expect(len(r.text) > 0 and r.segments and r.segments[0].end > 0, f"openai: a transcription: {r.text}")


def client_anthropic(url):
    import anthropic
    c = anthropic.Anthropic(base_url=url.removesuffix("/v1"), api_key="none")
    r = c.messages.create(model=MODEL, max_tokens=64, messages=HOT, system="Be brief.", extra_body=COLD)
    expect(r.content[0].type == "text" and len(r.content[0].text) > 0 and r.stop_reason == "end_turn", "anthropic: messages")
    with c.messages.stream(model=MODEL, max_tokens=64, messages=HOT, system="Be brief.", extra_body=COLD) as stream:
        text = "".join(stream.text_stream)
        expect(text == r.content[0].text and stream.get_final_message().usage.output_tokens > 0, "anthropic: a stream says the same")
    tool = {"name": "get_weather", "input_schema": TOOL["function"]["parameters"]}
    r = c.messages.create(model=MODEL, max_tokens=128, messages=WEATHER, tools=[tool], tool_choice={"type": "any"}, extra_body=COLD)
    use = [b for b in r.content if b.type == "tool_use"]
    expect(r.stop_reason == "tool_use" and use and "city" in use[0].input, "anthropic: tools")
    talk = WEATHER + [{"role": "assistant", "content": [b.model_dump() for b in r.content]},
                      {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use[0].id, "content": "sunny"}]}]
    expect(c.messages.create(model=MODEL, max_tokens=64, messages=talk, tools=[tool]).role == "assistant", "anthropic: a result comes back")
    with open(os.path.join(EXAMPLES, "scene.png"), "rb") as f:
        picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(f.read()).decode()}}
    r = c.messages.create(model=MODEL, max_tokens=64, messages=[{"role": "user", "content": [picture, {"type": "text", "text": "Describe it."}]}])
    expect(len(r.content) > 0, "anthropic: a picture")
    expect(c.messages.count_tokens(model=MODEL, messages=HOT).input_tokens > 5, "anthropic: count_tokens")


def client_langchain_openai(url):
    import pydantic
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
    from langchain_openai import ChatOpenAI

    class City(pydantic.BaseModel):
        """A city."""
        name: typing.Literal["Oslo", "Paris", "Rome"]

    c = ChatOpenAI(base_url=url, api_key="none", model=MODEL, temperature=0)
    said = c.invoke("What is the opposite of hot?").content
    expect("cold" in said, "langchain-openai: invoke")
    expect("".join(p.content for p in c.stream("What is the opposite of hot?")) == said, "langchain-openai: stream")
    expect(isinstance(c.with_structured_output(City).invoke("A city."), City), "langchain-openai: structured output")
    bound = c.bind_tools([TOOL], tool_choice="any")
    first = bound.invoke("What is the weather in Paris?")
    expect(first.tool_calls and first.tool_calls[0]["name"] == "get_weather", "langchain-openai: tools")
    talk = [HumanMessage("What is the weather in Paris?"), first, ToolMessage("sunny", tool_call_id=first.tool_calls[0]["id"])]
    expect(isinstance(c.bind_tools([TOOL]).invoke(talk), AIMessage), "langchain-openai: a result comes back")


def client_litellm(url):
    import litellm
    ask = dict(model="openai/" + MODEL, api_base=url, api_key="none", temperature=0)
    r = litellm.completion(messages=HOT, **ask)
    expect("cold" in r.choices[0].message.content, "litellm: completion")
    text = "".join(p.choices[0].delta.content or "" for p in litellm.completion(messages=HOT, stream=True, **ask))
    expect(text == r.choices[0].message.content, "litellm: stream")
    r = litellm.completion(messages=WEATHER, tools=[TOOL], tool_choice="required", **ask)
    expect(r.choices[0].message.tool_calls[0].function.name == "get_weather", "litellm: tools")
    r = litellm.completion(messages=HOT, reasoning_effort="low", **ask)
    expect(r.choices[0].message is not None, "litellm: reasoning_effort")


def client_llm(url):
    with tempfile.TemporaryDirectory() as home:
        with open(os.path.join(home, "extra-openai-models.yaml"), "w", encoding="utf-8") as f:
            f.write(f"- model_id: gemma4\n  model_name: {MODEL}\n  api_base: {url}\n  supports_schema: true\n  supports_tools: true\n  vision: true\n")
        env = dict(os.environ, LLM_USER_PATH=home, OPENAI_API_KEY="none")
        def ask(*args):
            r = subprocess.run([sys.executable, "-m", "llm", "-m", "gemma4", *args], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            return r.stdout + r.stderr[-300:]
        expect("cold" in ask("What is the opposite of hot?", "-o", "temperature", "0"), "llm: prompt")
        expect("cold" in ask("What is the opposite of hot?", "-o", "temperature", "0", "--no-stream"), "llm: prompt without a stream")
        said = ask("A city.", "--schema", json.dumps({"type": "object", "properties": {"name": {"enum": ["Oslo", "Paris"]}}, "required": ["name"]}))
        expect(said.startswith("{") and json.loads(said)["name"] in ("Oslo", "Paris"), f"llm: schema: {said}")
        expect(len(ask("Describe the picture.", "-a", os.path.join(EXAMPLES, "scene.png"))) > 3, "llm: attachment")


def client_pydantic_ai(url):
    import pydantic
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    class City(pydantic.BaseModel):
        name: typing.Literal["Oslo", "Paris", "Rome"]

    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=url, api_key="none"))
    said = Agent(model).run_sync("What is the opposite of hot?", model_settings={"temperature": 0}).output
    expect("cold" in said, f"pydantic-ai: text: {said}")
    expect(isinstance(Agent(model, output_type=City, retries=3).run_sync("A city.").output, City), "pydantic-ai: typed output")


def client_instructor(url):
    import instructor
    import openai
    import pydantic

    class City(pydantic.BaseModel):
        name: typing.Literal["Oslo", "Paris", "Rome"]
        size: int

    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA):
        c = instructor.from_openai(openai.OpenAI(base_url=url, api_key="none"), mode=mode)
        if mode == instructor.Mode.JSON:  # the schema stands in its prompt alone, which this model is too small to follow
            try:
                r = c.create(model=MODEL, messages=[{"role": "user", "content": "A city."}], response_model=City, max_retries=1)
                expect(isinstance(r, City), f"instructor: {mode}")
            except Exception as e:  # its class has moved between versions
                expect("validation error" in str(e), f"instructor: {mode}: JSON, not of the schema")
            continue
        r = c.create(model=MODEL, messages=[{"role": "user", "content": "A city."}], response_model=City, max_retries=1)
        expect(isinstance(r, City), f"instructor: {mode}: {r}")


def client_smolagents(url):
    from smolagents import OpenAIServerModel
    c = OpenAIServerModel(model_id=MODEL, api_base=url, api_key="none", temperature=0)
    said = c.generate([{"role": "user", "content": [{"type": "text", "text": "What is the opposite of hot?"}]}])
    expect("cold" in said.content, f"smolagents: {said.content}")


def client_aider_chat(url):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "init", "-q", folder], check=True)
        env = dict(os.environ, OPENAI_API_BASE=url, OPENAI_API_KEY="none", HOME=folder)
        r = subprocess.run([os.path.join(os.path.dirname(sys.executable), "aider"), "--model", "openai/" + MODEL, "--no-git", "--yes-always",
                            "--no-check-update", "--analytics-disable", "--no-show-model-warnings", "--message", "What is the opposite of hot?", "--edit-format", "ask"],
                           cwd=folder, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)
        expect(r.returncode == 0 and "Tokens:" in r.stdout, f"aider: {r.stdout[-400:]} {r.stderr[-300:]}")


def client_lm_eval(url):
    """Questions whose answers are written, and such with choices, whose probabilities are compared: the server's own tokens are asked for."""
    with tempfile.TemporaryDirectory() as folder:
        def task(name, rows, lines):
            with open(os.path.join(folder, name + ".jsonl"), "w", encoding="utf-8") as f:
                f.writelines(json.dumps(row) + "\n" for row in rows)
            with open(os.path.join(folder, name + ".yaml"), "w", encoding="utf-8") as f:
                f.write(f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files: {{test: {folder}/{name}.jsonl}}\ntest_split: test\n" + lines)
            return name

        def run(name, model_args, batch=1):
            r = subprocess.run([sys.executable, "-m", "lm_eval", "--model", "local-completions", "--tasks", name, "--include_path", folder, "--batch_size", str(batch),
                                "--model_args", f"model={MODEL},base_url={url}/completions,max_retries=1,{model_args}"],
                               capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600, env=dict(os.environ, OPENAI_API_KEY="none"))
            return r.returncode, r.stdout, r.stderr[-900:]

        written = task("written", [{"question": f"{i} and one is", "answer": str(i + 1)} for i in range(4)],
                       "output_type: generate_until\ndoc_to_text: '{{question}}'\ndoc_to_target: '{{answer}}'\n"
                       "generation_kwargs: {until: ['.'], max_gen_toks: 8, do_sample: false}\nmetric_list:\n  - metric: exact_match\n")
        code, out, err = run(written, "tokenizer_backend=None,tokenized_requests=False")
        expect(code == 0 and "exact_match" in out, f"lm-eval: written answers: {out[-600:]} {err}")
        chosen = task("chosen", [{"question": f"The opposite of {x} is", "choices": [y, "xylophone", "zzzzqq"], "answer": 0}
                                 for x, y in (("hot", "cold"), ("big", "small"), ("day", "night"), ("up", "down"))],
                      "output_type: multiple_choice\ndoc_to_text: '{{question}}'\ndoc_to_target: answer\ndoc_to_choice: choices\n"
                      "metric_list:\n  - metric: acc\n  - metric: acc_norm\n")
        for batch in (1, 4):
            code, out, err = run(chosen, "num_concurrent=1", batch)
            found = re.search(r"\|acc +\|[^|]*\|([0-9. ]+)\|", out)
            expect(code == 0 and found and float(found[1]) >= 0.75, f"lm-eval: multiple choice by {batch}: {out[-600:]} {err}")


CLIENTS = {"openai": client_openai, "anthropic": client_anthropic, "langchain-openai": client_langchain_openai, "litellm": client_litellm,
           "llm": client_llm, "pydantic-ai-slim": client_pydantic_ai, "instructor": client_instructor, "smolagents": client_smolagents,
           "aider-chat": client_aider_chat, "lm-eval": client_lm_eval}


def main():
    wanted = sys.argv[2:] or list(CLIENTS)
    server = subprocess.Popen([sys.argv[1], "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    found = next(found for found in (re.search(r"http://(127\.0\.0\.1):(\d+)", line) for line in server.stdout) if found)
    Recorder.target = found[1], int(found[2])
    proxy = Proxy(("127.0.0.1", 0), Recorder)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{proxy.server_port}/v1"
    for name in wanted:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            score.skip(f"{name} is not installed")
            continue
        print(f"{name} {version}", flush=True)
        Recorder.client = name
        try:
            CLIENTS[name](url)
        except Exception as e:  # one client's failure is no other's
            expect(False, f"{name}: {type(e).__name__}: {str(e)[:600]}")
    server.terminate()
    expect(server.wait(20) == 0, "the server ends when it is asked to")
    os.makedirs(os.path.join(ROOT, "build", "clients"), exist_ok=True)
    with open(os.path.join(ROOT, "build", "clients", "requests.jsonl"), "a", encoding="utf-8") as f:
        f.writelines(json.dumps(k) + "\n" for k in Recorder.kept)
    return score.end()


if __name__ == "__main__":
    sys.exit(main())
