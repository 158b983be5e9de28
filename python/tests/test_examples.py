"""The examples run, and say what the tiny model says. Those for packages of others run where these are installed."""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

EXAMPLES = pathlib.Path(__file__).resolve().parents[1] / "examples"


def run(*command, cwd=None):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES)] + [os.path.abspath(p) for p in sys.path if p])}
    done = subprocess.run([sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=env, cwd=cwd, timeout=300)
    if done.returncode != 0:
        raise AssertionError(done.stdout + done.stderr)
    return done.stdout


def needs(*names):
    def is_there(name):
        try:
            return importlib.util.find_spec(name) is not None
        except ImportError:
            return False
    return unittest.skipUnless(all(map(is_there, names)), f"no {' or '.join(names)}")


class Examples(unittest.TestCase):
    def test_extract(self):
        self.assertRegex(run(EXAMPLES / "extract.py"), r"^scene.png Shape\(size='\w+', color='\w+', shape='\w+'\)\nnumber.png")

    def test_agent(self):
        told = run(EXAMPLES / "agent.py")
        self.assertIn("It is sunny and 14 degrees in Oslo.", told)
        self.assertIn("shopping list: {'eggs': 3}", told)

    def test_transcribe(self):
        self.assertEqual(run(EXAMPLES / "transcribe.py"), "speech.wav (1.6 s): the green train near the river\n")

    def test_detect(self):
        with tempfile.TemporaryDirectory() as folder:
            told = run(EXAMPLES / "detect.py", "-o", os.path.join(folder, "out.png"))
            self.assertIn("pink ring", told)
            self.assertIn("out.png", os.listdir(folder))

    def test_length(self):
        for path in EXAMPLES.glob("*.py"):
            self.assertLess(len(path.read_text().splitlines()), 100, path.name)


class Plugins(unittest.TestCase):
    @needs("lm_eval")
    def test_lm_eval(self):
        told = run("-c", """
import lm_eval_gemma4
from lm_eval.api.instance import Instance
model = lm_eval_gemma4.Gemma4(threads=1)
ask = lambda kind, *args: Instance(kind, {}, args, 0)
scores = model.loglikelihood([ask("loglikelihood", "And God said, Let there be", x) for x in (" light", " qqqq")])
print(scores[0][0] > scores[1][0])
whole = model.loglikelihood_rolling([ask("loglikelihood_rolling", "And God said, Let there be light: and there was light.")])
parts = model.engine.logprobs("And God said, Let there be light: and there was light.")
print(abs(whole[0] - parts.sum()) < 1e-3)
print(len(model.generate_until([ask("generate_until", "And God said,", {"until": ["."], "max_gen_toks": 8})])))
""")
        self.assertEqual(told.split(), ["True", "True", "1"])

    @needs("llm")
    def test_llm(self):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["LLM_USER_PATH"] = folder
            told = run("-c", """
import llm, llm_gemma4, sys
from llm.plugins import pm
pm.register(llm_gemma4)
model = llm.get_model("gemma4")
print(model.prompt("What is the opposite of hot?", temperature=0).text())
chat = model.conversation()
print(chat.prompt("My favorite color is purple.", temperature=0).text() != "")
print("purple" in chat.prompt("What is my favorite color?", temperature=0).text())
def get_weather(city: str) -> str:
    "Get the weather in a city."
    return "sunny"
print(model.prompt("What is the weather in Oslo?", tools=[get_weather], temperature=0).tool_calls()[0].arguments)
picture = llm.Attachment(path=sys.argv[1])
print(model.prompt("Describe the picture.", attachments=[picture], temperature=0).text())
print(model.prompt("Is fire hot?", schema={"enum": ["yes", "no"]}, temperature=0).text() in ('"yes"', '"no"'))
""", EXAMPLES.parents[1] / "examples" / "scene.png")
        self.assertEqual(told.splitlines(), ["The opposite of hot is cold.", "True", "True", "{'city': 'Oslo'}",
                                             "A small red square left of a large pink square.", "True"])

    @needs("langchain_core")
    def test_langchain(self):
        told = run("-c", """
from langchain_gemma4 import ChatGemma4
from langchain_core.messages import HumanMessage, ToolMessage
model = ChatGemma4(temperature=0)
print(model.invoke("What is the opposite of hot?").content)
print("".join(chunk.content for chunk in model.stream("What is the opposite of hot?")))
def get_weather(city: str) -> str:
    "Get the weather in a city."
    return "sunny"
tools, ask = model.bind_tools([get_weather]), HumanMessage("What is the weather in Oslo?")
answer = tools.invoke([ask])
print(answer.tool_calls[0]["args"])
print(tools.invoke([ask, answer, ToolMessage("sunny", tool_call_id=answer.tool_calls[0]["id"])]).content != "")
pieces = list(tools.stream([ask]))
whole = pieces[0]
for piece in pieces[1:]:
    whole = whole + piece
print(whole.tool_calls[0]["args"])
""")
        self.assertEqual(told.splitlines(), ["The opposite of hot is cold."] * 2 + ["{'city': 'Oslo'}", "True",
                                                                                "{'city': 'Oslo'}"])
