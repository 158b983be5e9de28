"""What the package promises, on the tiny model that it carries."""

import asyncio
import base64
import copy
import dataclasses
import datetime
import enum
import functools
import gc
import importlib.util
import io
import json
import os
import pathlib
import pickle
import stat
import subprocess
import sys
import tempfile
import threading
import typing
import unittest

import gemma4c
from gemma4c import Engine
from gemma4c.answer import _arguments

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
HOT, COLD = "What is the opposite of hot?", "The opposite of hot is cold."
LONG = "And God said, Let there be"


def has(*names):
    return unittest.skipUnless(all(importlib.util.find_spec(n) for n in names), f"no {' or '.join(names)}")


def python(code, **more):
    """Run a program of its own, with this package."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60, **more)


class OfOurs(Engine):
    pass


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.engine = Engine()

    @classmethod
    def tearDownClass(cls):
        cls.engine.close()

    def ask(self, prompt, **options):
        with self.engine.session() as session:
            return session.respond(prompt, temperature=0, **options)


class Answers(Case):
    def test_conversation(self):
        with self.engine.session(system="Be kind and short.") as session:
            first = session.respond(HOT, temperature=0)
            self.assertEqual((str(first), first.finish_reason), (COLD, "stop"))
            second = session.respond("What is 39 - 1?", temperature=0)
            self.assertEqual(second.text, "38")
            self.assertGreater(second.usage.cached_tokens, first.usage.prompt_tokens)
            self.assertEqual([m["role"] for m in session.messages], ["system"] + ["user", "assistant"] * 2)
            n = len(session)
            session.rewind(5)
            self.assertEqual(len(session), 5)
            del session.messages[-2:]
            self.assertEqual(session.respond("What is 39 - 1?", temperature=0).text, "38")
            self.assertEqual(len(session), n)

    def test_answers_are_the_programs(self):
        program = ROOT / "gemma4"
        if not program.exists():
            self.skipTest("no program")
        for prompt in (HOT, "What is 39 - 1?", "My favorite color is purple."):
            told = subprocess.run([program, "-p", prompt, "--temp", "0", "--quiet"], capture_output=True, text=True).stdout
            self.assertEqual(self.ask(prompt).text, told.rstrip("\n"))

    def test_messages(self):
        answer = self.ask([{"role": "user", "content": "My favorite color is purple."},
                           {"role": "assistant", "content": "Nice. I will remember that."},
                           {"role": "user", "content": "What is my favorite color?"}])
        self.assertIn("purple", answer.text)

    def test_thinking(self):
        answer = self.ask("What is 17 + 25?", think=True)
        self.assertTrue(answer.thought)
        self.assertIn("42", answer.text)
        self.assertGreater(answer.usage.thought_tokens, 0)
        self.assertEqual(self.ask("What is 17 + 25?", think=False).thought, "")

    def test_limits(self):
        answer = self.ask(HOT, max_tokens=3)
        self.assertEqual((answer.finish_reason, answer.usage.completion_tokens), ("length", 3))
        with self.assertRaises(ValueError):
            answer.parsed
        self.assertEqual(self.ask(HOT, stop=" is").text, "The opposite of hot")
        with self.assertRaises(gemma4c.Canceled):
            self.ask(LONG * 100, timeout=0)
        self.assertEqual(self.ask(HOT).text, COLD)

    def test_logprobs(self):
        answer = self.ask(HOT, logprobs=3)
        self.assertEqual(len(answer.logprobs), answer.usage.completion_tokens)
        for token in answer.logprobs:
            self.assertEqual(len(token.top), 3)
            self.assertAlmostEqual(token.logprob, token.top[0][1], places=6)  # greedy: the likeliest

    def test_sampling_has_a_seed(self):
        texts = {self.ask("Name three rivers.", seed=s, max_tokens=20).text for s in (1, 1)}
        self.assertEqual(len(texts), 1)

    def test_grammar(self):
        self.assertIn(self.ask("Is fire hot?", grammar='root ::= "yes" | "no"').text, ("yes", "no"))

    def test_complete(self):
        with self.engine.session() as session:
            answer = session.complete(LONG, max_tokens=8, temperature=0, logprobs=0)
            self.assertEqual((len(session), answer.usage.completion_tokens), (answer.usage.prompt_tokens + 8, 8))
            self.assertEqual(len(answer.logprobs), 8)
            self.assertEqual(session.complete(LONG, max_tokens=8, temperature=0).usage.cached_tokens,
                             answer.usage.prompt_tokens - 1)
            self.assertRegex(session.complete("A number: ", grammar="root ::= [0-9]{3}", temperature=0).text, "^[0-9]{3}$")
            program = ROOT / "gemma4"
            if program.exists():
                told = subprocess.run([program, "--raw", "-p", LONG, "-n", "8", "--temp", "0", "--quiet", "--json"],
                                      capture_output=True, text=True).stdout
                self.assertEqual(json.loads(told)["content"], answer.text)

    def test_stream(self):
        with self.engine.session() as session:
            stream = session.stream(HOT, temperature=0)
            with self.assertRaises(gemma4c.ArgumentError):
                stream.answer
            pieces = list(stream)
            self.assertGreater(len(pieces), 3)
            self.assertEqual("".join(pieces), COLD)
            self.assertEqual(stream.answer.text, COLD)
            kinds = [p.kind for p in session.stream("What is 17 + 25?", think=True, temperature=0).pieces()]
            self.assertEqual(sorted(set(kinds)), ["text", "thought"])

    def test_stream_that_is_left(self):
        with self.engine.session() as session:
            for _ in session.stream(LONG, temperature=1):
                break  # the generator is closed here, the model stops
            self.assertEqual(session.messages, [])
            stream = session.stream(LONG)
            with self.assertRaises(gemma4c.ArgumentError):
                session.respond(HOT)
            stream.close()
            self.assertEqual(session.respond(HOT, temperature=0).text, COLD)
            with self.assertRaises(gemma4c.ArgumentError):
                list(session.stream([{"role": "stranger", "content": "x"}]))
            self.assertEqual(session.respond(HOT, temperature=0).text, COLD)


class Schemas(Case):
    PROMPT = "Ada, 36, bakes bread in Bergen. Who is this? Answer in JSON."

    def test_dict(self):
        schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}, "age": {"type": "integer"}},
                  "required": ["name", "age"], "additionalProperties": False}
        value = self.ask(self.PROMPT, schema=schema, max_tokens=200).parsed
        self.assertEqual(set(value), {"name", "age"})

    def test_dataclass(self):
        class Job(enum.Enum):
            BAKER, SAILOR = "baker", "sailor"

        @dataclasses.dataclass
        class Person:
            name: typing.Literal["Ada", "Bob"]
            age: typing.Literal[36, 63]
            job: Job
            tags: typing.List[typing.Literal["x"]] = dataclasses.field(default_factory=list)

        # local classes: annotations are objects here, this module has no future import
        value = self.ask(self.PROMPT, schema=Person, max_tokens=300).parsed
        self.assertIsInstance(value, Person)
        self.assertIsInstance(value.job, Job)

    def test_typed_dict(self):
        Fact = typing.TypedDict("Fact", {"name": typing.Literal["Ada", "Bob"], "age": typing.Literal[1, 2]})
        self.assertEqual(set(self.ask(self.PROMPT, schema=Fact, max_tokens=200).parsed), {"name", "age"})

    @has("pydantic")
    def test_pydantic(self):
        import pydantic

        class Person(pydantic.BaseModel):
            name: typing.Literal["Ada", "Bob"]
            age: typing.Annotated[int, pydantic.Field(ge=0, le=130)]

        self.assertIsInstance(self.ask(self.PROMPT, schema=Person, max_tokens=200).parsed, Person)

    def test_plain_types(self):
        self.assertIsInstance(self.ask("Is fire hot?", schema=bool).parsed, bool)
        self.assertIn(self.ask("Is fire hot?", schema=typing.Literal["yes", "no"]).parsed, ("yes", "no"))

    def test_back(self):
        @dataclasses.dataclass
        class Tree:
            name: str
            below: typing.Optional["Tree"] = None

        Tree.__annotations__["below"] = typing.Optional[Tree]
        schema = gemma4c.schema_of(Tree)
        self.assertEqual(schema["$ref"], "#/$defs/Tree")
        self.assertEqual(gemma4c.value_of(Tree, '{"name": "a", "below": {"name": "b"}}'), Tree("a", Tree("b")))
        self.assertEqual(gemma4c.value_of(typing.Tuple[int, str], "[1, \"x\"]"), (1, "x"))
        self.assertEqual(gemma4c.value_of(typing.Set[int], "[1, 2.0]"), {1, 2})
        self.assertEqual(gemma4c.value_of(typing.Dict[str, float], '{"a": 1}'), {"a": 1.0})
        for t, text in ((int, '"x"'), (str, "1"), (int, "true"), (typing.Optional[int], '"x"'), (Tree, "[]")):
            with self.assertRaises(ValueError):
                gemma4c.value_of(t, text)
        for t in (object(), 5, threading.Lock, "name", typing.List["Nowhere"]):  # noqa: F821
            with self.assertRaises(TypeError):
                gemma4c.schema_of(t)


    def test_what_does_not_fit(self):
        @dataclasses.dataclass
        class Point:
            x: int
            y: int = 0

        Fact = typing.TypedDict("Fact", {"name": str})
        yes = enum.Enum("yes", {"YES": "yes"})
        for t, text in ((typing.Literal["a"], '"z"'), (Point, "{}"), (Fact, "{}"), (dict, "5"), (type(None), "5"),
                        (typing.Tuple[int, int], "[1]"), (typing.Literal[1], "true"), ({}, "[" * 100000)):
            with self.assertRaises(ValueError):
                gemma4c.value_of(t, text)
        self.assertIs(gemma4c.value_of(typing.Literal[yes.YES], '"yes"'), yes.YES)
        self.assertEqual(gemma4c.value_of(typing.Mapping[str, Point], '{"a": {"x": 1}}'), {"a": Point(1)})

    def test_classes_of_one_name(self):
        def point(t):
            return dataclasses.make_dataclass("Point", [("x", t)])

        schema = gemma4c.schema_of(typing.Tuple[point(int), point(str)])
        kinds = [schema["$defs"][s["$ref"].rsplit("/", 1)[1]]["properties"]["x"]["type"] for s in schema["prefixItems"]]
        self.assertEqual(kinds, ["integer", "string"])

    def test_named_and_formatted_types(self):
        Id = typing.NewType("Id", int)
        self.assertEqual(gemma4c.schema_of(Id), {"type": "integer"})
        self.assertEqual(gemma4c.schema_of(datetime.date), {"type": "string", "format": "date"})
        value = gemma4c.value_of(typing.List[datetime.datetime], '["2024-01-02T03:04:05Z"]')
        self.assertEqual(value, [datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)])
        self.assertIsInstance(self.ask("When? As a date.", schema=datetime.date).parsed, datetime.date)

    @unittest.skipUnless(hasattr(typing, "NotRequired"), "no typing.NotRequired")
    def test_annotations_as_text(self):
        names = {}
        exec("from __future__ import annotations\nimport typing\nclass T(typing.TypedDict):\n    a: int\n"
             "    b: typing.NotRequired[int]\n", names)
        names["T"].__module__ = __name__
        self.assertEqual(gemma4c.schema_of(names["T"])["required"], ["a"])

    @has("pydantic")
    def test_pydantic_in_other_types(self):
        import pydantic

        class Node(pydantic.BaseModel):
            name: typing.Literal["a"]
            below: "typing.Optional[Node]" = None

        Node.model_rebuild(_types_namespace={"Node": Node, "typing": typing})
        schema = gemma4c.schema_of(typing.List[Node])
        self.assertIn("name", str(schema["$defs"]))
        self.assertNotIn({"$ref": "#/$defs/Node"}, schema["$defs"].values())
        answer = self.ask("Give a list.", schema=typing.Tuple[Node], max_tokens=100)
        self.assertTrue(answer.finish_reason == "length" or isinstance(answer.parsed[0], Node))


async def look_up(city: str) -> str:
    """Look it up."""
    return city.upper()


def get_weather(city: str, unit: typing.Literal["C", "F"] = "C") -> dict:
    """Weather of a city, now.

    Args:
        city: name of the city
    """
    if city == "Nowhere":
        raise KeyError(city)
    return {"sky": "sunny", "temperature": 21}


class Tools(Case):
    def test_function(self):
        with self.engine.session() as session:
            answer = session.respond("What is the weather in Oslo?", tools=[get_weather], temperature=0)
            self.assertEqual((answer.finish_reason, answer.text), ("tool_calls", ""))
            (call,) = answer.calls
            self.assertEqual((call.name, call.arguments["city"]), ("get_weather", "Oslo"))
            self.assertIs(call.function, get_weather)
            answer = session.respond([call.run()], tools=[get_weather], temperature=0)
            self.assertEqual(answer.text, "It is sunny and 21 degrees in Oslo.")
            self.assertIn("response:get_weather{sky:", self.engine.detokenize(session.tokens))
            self.assertEqual([m["role"] for m in session.messages], ["user", "assistant", "tool", "assistant"])

    def test_declaration(self):
        inner = gemma4c.tool_of(get_weather).declaration["function"]
        self.assertEqual(inner["description"], "Weather of a city, now.")
        self.assertEqual(inner["parameters"]["properties"]["city"], {"type": "string", "description": "name of the city"})
        self.assertEqual(inner["parameters"]["properties"]["unit"], {"type": "string", "enum": ["C", "F"]})
        self.assertEqual(inner["parameters"]["required"], ["city"])

    def test_docstring_as_numpys(self):
        def area(width: float, height: float = 1.0) -> float:
            """Area of a rectangle.

            Parameters
            ----------
            width : float
                how wide
            height : float, optional
                how high

            Returns
            -------
            float
                the area
            """

        members = gemma4c.tool_of(area).declaration["function"]["parameters"]["properties"]
        self.assertEqual([m["description"] for m in members.values()], ["how wide", "how high"])

    def test_partial_async_and_nameless(self):
        partial = gemma4c.tool_of(functools.partial(get_weather, unit="F"))
        self.assertEqual((partial.name, partial.declaration["function"]["description"]),
                         ("get_weather", "Weather of a city, now."))
        call = gemma4c.Call("1", "get_weather", {"city": "Oslo"}, partial.function)
        self.assertEqual(call.run().content["sky"], "sunny")
        self.assertEqual(asyncio.run(call.run_async()), call.run())
        call = gemma4c.Call("1", "look_up", {"city": "Oslo"}, look_up)
        self.assertEqual(asyncio.run(call.run_async()).content, "OSLO")
        with self.assertRaisesRegex(TypeError, "run_async"):
            call.run()
        with self.assertRaisesRegex(TypeError, "name"):
            gemma4c.tool_of(lambda x: x)

    def test_choice(self):
        self.assertEqual(self.ask(HOT, tools=[get_weather], tool_choice="none").text, COLD)
        self.assertEqual(self.ask(HOT, tools=[get_weather], tool_choice="required").calls[0].name, "get_weather")
        self.assertEqual(self.ask(HOT, tools=[get_weather], tool_choice="get_weather").calls[0].name, "get_weather")

    def test_arguments_without_bounds(self):
        self.assertEqual(_arguments('{"a": ' + "9" * 9000 + "}"), {"a": float("inf")})
        self.assertEqual(_arguments('{"a": -12}'), {"a": -12})
        deep = '{"a": ' * 100000 + "1" + "}" * 100000
        self.assertEqual(_arguments(deep), {"value": deep})

    def test_failure_is_a_result(self):
        call = gemma4c.Call("1", "get_weather", {"city": "Nowhere"}, get_weather)
        self.assertEqual(call.run().content, {"error": "KeyError: 'Nowhere'"})
        with self.assertRaises(TypeError):
            gemma4c.Call("1", "other", {}).run()


class Media(Case):
    def test_path_and_bytes(self):
        path = EXAMPLES / "scene.png"
        for picture in (path, path.read_bytes(), gemma4c.load_media(path)):
            answer = self.ask([picture, "Describe the scene."])
            self.assertRegex(answer.text, "circle|square|star|heart|triangle|diamond|cross|ring")
        self.assertEqual(self.ask(path).usage.prompt_tokens, self.ask([path]).usage.prompt_tokens)

    def test_in_messages(self):
        """As they are put there: a conversation may be written by hand, and copied."""
        path = EXAMPLES / "scene.png"
        with self.engine.session() as session:
            session.messages.append({"role": "user", "content": [path, "Describe the scene."]})
            session.messages.append({"role": "assistant", "content": "A scene."})
            self.assertTrue(session.respond(HOT, temperature=0).text)
            copied = copy.deepcopy(session.messages)
            self.assertIs(copied[0]["content"][0]["image"], session.messages[0]["content"][0]["image"])

    def test_sound_and_video(self):
        self.assertTrue(self.ask([EXAMPLES / "speech.wav", "Transcribe this."]).text)
        self.assertTrue(self.ask([EXAMPLES / "clip.y4m", "What moves where?"]).text)

    @has("numpy")
    def test_arrays(self):
        import numpy as np

        medium = gemma4c.load_media(EXAMPLES / "scene.png")
        pixels = medium.numpy()
        self.assertEqual(pixels.shape, (medium.size[1], medium.size[0], 3))
        wanted = self.ask([medium, "Describe the scene."])
        for array in (pixels, pixels[:, ::-1][:, ::-1], np.asfortranarray(pixels)):
            answer = self.ask([array, "Describe the scene."])
            self.assertEqual((answer.text, answer.usage[:4]), (wanted.text, wanted.usage[:4]))
        gray = gemma4c.load_media(pixels[:, :, 0])
        self.assertTrue((gray.numpy()[:, :, 2] == pixels[:, :, 0]).all())
        clear = np.zeros((4, 5, 4), np.uint8)
        self.assertTrue((gemma4c.load_media(clear).numpy() == 255).all())
        sound = gemma4c.load_media(EXAMPLES / "speech.wav")
        samples = sound.numpy()
        self.assertEqual((samples.ndim, samples.dtype), (1, np.float32))
        self.assertEqual(self.ask([samples, "Transcribe this."]).text, self.ask([sound, "Transcribe this."]).text)
        video = gemma4c.load_media(np.stack([pixels] * 4))
        self.assertEqual((video.kind, video.numpy().shape[0]), ("video", 4))
        self.assertTrue(self.ask([video, "What moves where?"]).text)

    @has("PIL")
    def test_pil(self):
        from PIL import Image

        with Image.open(EXAMPLES / "scene.png") as image:
            self.assertEqual(self.ask([image, "Describe the scene."]).text,
                             self.ask([EXAMPLES / "scene.png", "Describe the scene."]).text)
        self.assertEqual(gemma4c.load_media(Image.new("RGBA", (2, 2), (0, 0, 0, 0))).struct.pixels[0], 255)

    @has("PIL", "numpy")
    def test_pil_of_other_modes(self):
        import numpy as np
        from PIL import Image

        gray = Image.fromarray((np.arange(256, dtype=np.uint16) * 257).reshape(16, 16))
        file = io.BytesIO()
        gray.save(file, "PNG")
        wanted = gemma4c.load_media(file.getvalue()).numpy().astype(int)
        for image in (gray, gray.convert("I")):
            self.assertLessEqual(abs(gemma4c.load_media(image).numpy() - wanted).max(), 1, image.mode)
        few = Image.new("I", (2, 2), 200)
        self.assertEqual(gemma4c.load_media(few).numpy().max(), 200)
        for mode in ("La", "RGBa"):
            self.assertEqual(gemma4c.load_media(Image.new(mode, (2, 2))).numpy().min(), 255)

    def test_files_of_other_libraries(self):
        with tempfile.NamedTemporaryFile() as f:  # no io.IOBase, but what wraps one
            f.write((EXAMPLES / "scene.png").read_bytes())
            f.seek(0)
            self.assertEqual(gemma4c.load_media(f).size, gemma4c.load_media(EXAMPLES / "scene.png").size)

    @has("numpy")
    def test_encode(self):
        import numpy as np

        hidden = self.engine.info.hidden
        rows = self.engine.encode(EXAMPLES / "scene.png")
        self.assertEqual((rows.shape[1], rows.dtype), (hidden, np.float32))
        self.assertTrue(np.isfinite(rows).all())
        self.assertEqual(self.engine.encode(EXAMPLES / "speech.wav").shape[1], hidden)
        self.assertEqual(self.engine.encode(EXAMPLES / "clip.y4m").shape[1], hidden)
        self.assertGreater(len(self.engine.encode(EXAMPLES / "scene.png", max_tokens=280)), len(rows))

    def test_boxes(self):
        answer = self.ask([EXAMPLES / "scene.png", "Where is the red circle? Give its box."])
        boxes = self.ask([EXAMPLES / "scene.png", "Detect all objects."]).boxes + answer.boxes
        png = gemma4c.draw_boxes(EXAMPLES / "scene.png", boxes + [gemma4c.Box("x", 5, 5, 5, 5)])
        self.assertEqual(gemma4c.load_media(png).size, gemma4c.load_media(EXAMPLES / "scene.png").size)


class Completions(Case):
    def test_chat_completion(self):
        messages = [{"role": "user", "content": HOT}]
        answer = self.engine.create_chat_completion(messages, temperature=0, logprobs=True, top_logprobs=2)
        self.assertEqual(answer["object"], "chat.completion")
        self.assertEqual(answer["choices"][0]["message"]["content"], COLD)
        self.assertEqual(len(answer["choices"][0]["logprobs"]["content"]), answer["usage"]["completion_tokens"])
        chunks = list(self.engine.create_chat_completion(messages, temperature=0, stream=True,
                                                         stream_options={"include_usage": True}))
        text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
        self.assertEqual(text, COLD)
        self.assertEqual(chunks[-1]["usage"]["completion_tokens"], answer["usage"]["completion_tokens"])

    def test_streams_may_meet(self):
        messages = [{"role": "user", "content": HOT}]
        first = self.engine.create_chat_completion(messages, temperature=0, stream=True)
        second = self.engine.create_chat_completion(messages, temperature=0, stream=True)
        self.assertEqual(self.engine.create_chat_completion(messages, temperature=0)["choices"][0]["message"]["content"],
                         COLD)
        self.assertEqual(len(list(first)), len(list(second)))

    def test_tools_and_pictures(self):
        tool = gemma4c.tool_of(get_weather).declaration
        answer = self.engine.create_chat_completion([{"role": "user", "content": "What is the weather in Oslo?"}],
                                                    tools=[tool], temperature=0)
        call = answer["choices"][0]["message"]["tool_calls"][0]["function"]
        self.assertEqual(json.loads(call["arguments"])["city"], "Oslo")
        url = "data:image/png;base64," + base64.b64encode((EXAMPLES / "scene.png").read_bytes()).decode()
        for part in ({"type": "image_url", "image_url": {"url": url}},
                     {"type": "image", "image": EXAMPLES / "scene.png"}):
            answer = self.engine.create_chat_completion([{"role": "user", "content": [
                part, {"type": "text", "text": "Describe the scene."}]}], temperature=0)
            self.assertTrue(answer["choices"][0]["message"]["content"])

    def test_errors_have_a_place(self):
        for request, param in (
                ({"messages": [{"role": "user", "content": HOT}], "temperature": "hot"}, "temperature"),
                ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "messages[0].content[0].type"),
                ({"messages": [{"role": "alien", "content": ""}], "stream": True}, "messages[0].role")):
            with self.assertRaises(gemma4c.ArgumentError) as caught:
                self.engine.create_chat_completion(**request)
            self.assertEqual((caught.exception.param, caught.exception.code), (param, "G4_ERR_ARGUMENT"))

    def test_files_of_strangers(self):
        messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": str(EXAMPLES / "scene.png")}}]}]
        with self.assertRaises(gemma4c.Gemma4Error):
            self.engine.create_chat_completion(messages)
        with Engine(media_root=EXAMPLES) as engine:
            self.assertTrue(engine.create_chat_completion(messages, temperature=0)["choices"][0]["message"]["content"])


class Batches(Case):
    PROMPTS = [HOT, "What is 39 - 1?", "Name three rivers.", "My favorite color is purple.", "What is the opposite of big?"]

    def test_equal_to_one_at_a_time(self):
        alone = [self.ask(p).text for p in self.PROMPTS]
        for parallel in (1, 2, 8):
            answers = list(self.engine.batch(iter(self.PROMPTS), parallel=parallel, temperature=0))
            self.assertEqual([a.text for a in answers], alone)
            self.assertEqual([a.index for a in answers], list(range(len(alone))))
        by_index = {a.index: a.text for a in self.engine.batch(self.PROMPTS, parallel=3, ordered=False, temperature=0)}
        self.assertEqual([by_index[i] for i in range(len(alone))], alone)

    def test_options(self):
        answers = list(self.engine.batch([HOT] * 3, schema=typing.Literal["cold", "warm"], temperature=0, system="Be short.",
                                         logprobs=1))
        self.assertEqual([a.parsed for a in answers], [answers[0].parsed] * 3)
        self.assertTrue(answers[0].logprobs)
        calls = list(self.engine.batch(["What is the weather in Oslo?"] * 2, tools=[get_weather], temperature=0))
        self.assertEqual(calls[1].calls[0].run().name, "get_weather")
        pictures = list(self.engine.batch([[EXAMPLES / "scene.png", "Describe the scene."]] * 2, temperature=0))
        self.assertEqual(pictures[0].text, self.ask([EXAMPLES / "scene.png", "Describe the scene."]).text)

    def test_a_common_beginning_is_read_once(self):
        """Also by those that begin at the same moment; the window of sliding layers is shorter than it."""
        ask = dict(system="You answer in one word. " * 40, temperature=0, max_tokens=4)
        prompts = [f"What is {i} + {i}?" for i in range(7)] + ["What is 1 + 1?"]
        answers = list(self.engine.batch(prompts, parallel=4, **ask))
        self.assertEqual([a.text for a in answers], [a.text for a in self.engine.batch(prompts, parallel=1, **ask)])
        self.assertEqual(answers[0].usage.cached_tokens, 0)
        for answer in answers[1:]:
            self.assertLess(answer.usage.prompt_tokens - answer.usage.cached_tokens, 32)
        with_picture = [[EXAMPLES / "scene.png", p] for p in prompts[:2]]
        answers = list(self.engine.batch(with_picture, parallel=2, **ask))
        self.assertGreater(answers[1].usage.cached_tokens, 200)
        self.assertLess(answers[1].usage.cached_tokens, answers[1].usage.prompt_tokens - 16)

    def test_an_iterator_of_tools_serves_all(self):
        answers = self.engine.batch(["What is the weather in Oslo?"] * 3, parallel=1, tools=iter([get_weather]), temperature=0)
        self.assertEqual([len(a.calls) for a in answers], [1] * 3)

    def test_errors(self):
        prompts = [HOT, 5, [{"role": "alien", "content": ""}], "a " * 9000, HOT]
        answers = list(self.engine.batch(prompts, errors="return", temperature=0))
        self.assertEqual([type(a.error) for a in answers],
                         [type(None), TypeError, gemma4c.ArgumentError, gemma4c.ContextError, type(None)])
        self.assertEqual(answers[4].text, COLD)
        with self.assertRaises(TypeError):
            list(self.engine.batch(prompts, temperature=0))

    def test_left_early(self):
        def endless():
            while True:
                yield HOT
        with Engine() as engine:
            for i, answer in enumerate(engine.batch(endless(), parallel=4, temperature=0)):
                self.assertEqual(answer.text, COLD)
                if i == 5:
                    break
            answers = engine.batch(endless())
            next(answers)
        del answers
        gc.collect()

    def test_inside_a_batch(self):
        answers = self.engine.batch([HOT] * 4, parallel=2, temperature=0)
        next(answers)
        self.assertEqual(self.ask(HOT).text, COLD)
        self.assertEqual(len(list(answers)), 3)


class Timeline(Case):
    @has("numpy")
    def test_tokens(self):
        ids = self.engine.tokenize("hello there", bos=True)
        self.assertEqual((str(ids.dtype), ids[0]), ("int32", self.engine.info.bos))
        self.assertEqual(self.engine.detokenize(ids[1:]), "hello there")
        self.assertEqual(len(self.engine.tokenize("<|turn>", specials=True)), 1)
        self.assertGreater(len(self.engine.tokenize("<|turn>")), 1)
        self.assertEqual(self.engine.count_tokens("hello there"), len(ids) - 1)
        for text in ("", "\0", "a\0b", "\u00e9\u4e2d\U0001f600", "x" * 5000):
            self.assertEqual(self.engine.detokenize(self.engine.tokenize(text)), text)

    @has("numpy")
    def test_logits(self):
        import numpy as np

        ids = self.engine.tokenize(LONG, bos=True)
        with self.engine.session() as session, self.engine.session() as other:
            every = session.eval_all(ids)
            other.eval(ids)
            self.assertEqual(every.shape, (len(ids), self.engine.info.n_vocab))
            self.assertTrue((every[-1] == other.logits()).all())
            self.assertEqual(session.tokens, list(ids))
            seen = []
            session.rewind(0)
            session.eval_all(ids, lambda i, row: seen.append(row.argmax()))
            self.assertEqual(seen, list(every.argmax(axis=1)))
            with self.assertRaises(ZeroDivisionError):
                session.eval_all(ids, lambda i, row: 1 / 0)
            session.rewind(0)
            session.eval(LONG)
            self.assertEqual(session.tokens, list(ids))
        rows = every[:-1].astype(np.float64)
        wanted = rows[np.arange(len(ids) - 1), ids[1:]] - np.log(np.exp(rows).sum(axis=1))
        self.assertTrue(np.allclose(self.engine.logprobs(LONG), wanted, atol=1e-5))
        self.assertAlmostEqual(self.engine.perplexity(LONG), float(np.exp(-wanted.mean())), places=3)
        values, is_best = self.engine.score(ids, [int(every[-1].argmax())])
        self.assertTrue(is_best)
        self.assertAlmostEqual(float(values[0]), float(every[-1].max() - np.log(np.exp(every[-1]).sum())), places=4)

    def test_fork(self):
        with self.engine.session() as session:
            session.respond("My name is Ada.", temperature=0)
            other = session.fork()
            a, b = session.respond("What is my name?", temperature=0), other.respond("What is my name?", temperature=0)
            self.assertEqual((a.text, a.usage.cached_tokens), (b.text, b.usage.cached_tokens))
            session.close()
            self.assertEqual(other.respond(HOT, temperature=0).text, COLD)

    def test_save_and_load(self):
        with tempfile.TemporaryDirectory() as folder, self.engine.session() as session:
            path = pathlib.Path(folder) / "session"
            session.respond([EXAMPLES / "scene.png", EXAMPLES / "speech.wav", EXAMPLES / "clip.y4m",
                             "Describe the scene."], temperature=0)
            session.save(path)
            self.assertEqual(os.listdir(folder), ["session"])
            loaded = self.engine.load(path)
            self.assertEqual(loaded.tokens, session.tokens)
            a, b = session.respond(HOT, temperature=0), loaded.respond(HOT, temperature=0)
            self.assertEqual((a.text, a.usage[:4]), (b.text, b.usage[:4]))
            self.assertGreater(b.usage.cached_tokens, 100)
            data = path.read_bytes()
            for n in (0, 5, 17, 25, 60, len(data) // 2, len(data) - 1):
                path.write_bytes(data[:n])
                with self.assertRaises(gemma4c.Gemma4Error):
                    self.engine.load(path)
            with self.assertRaises(FileNotFoundError):
                self.engine.load(pathlib.Path(folder) / "none")
            with self.assertRaises(OSError):
                session.save(pathlib.Path(folder) / "none" / "x")
            link, pipe = os.path.join(folder, "link"), os.path.join(folder, "pipe")
            os.symlink(path, link)
            session.save(link)
            self.assertTrue(os.path.islink(link))
            os.mkfifo(pipe)
            with self.assertRaisesRegex(gemma4c.FileError, "expected a file"):
                session.save(pipe)
            self.assertTrue(stat.S_ISFIFO(os.stat(pipe).st_mode))


class Async(Case):
    def test_respond_and_stream(self):
        async def main():
            with self.engine.session() as a, self.engine.session() as b:
                one, two = await asyncio.gather(a.respond_async(HOT, temperature=0),
                                                b.respond_async("What is 39 - 1?", temperature=0))
                stream = a.stream_async(HOT, temperature=0)
                text = "".join([piece async for piece in stream])
                return one.text, two.text, text, stream.answer.text
        self.assertEqual(asyncio.run(main()), (COLD, "38", COLD, COLD))

    def test_cancel(self):
        async def main():
            with self.engine.session() as session:
                task = asyncio.ensure_future(session.respond_async(LONG * 200))
                await asyncio.sleep(0.05)
                task.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await task
                self.assertEqual((await session.respond_async(HOT, temperature=0)).text, COLD)
                async for _ in session.stream_async(LONG):
                    break
                gc.collect()
                self.assertEqual((await session.respond_async(HOT, temperature=0)).text, COLD)
        asyncio.run(main())

    def test_errors(self):
        async def main():
            with self.engine.session() as session:
                with self.assertRaises(gemma4c.ArgumentError):
                    await session.respond_async([{"role": "alien", "content": "x"}])
                with self.assertRaises(gemma4c.ArgumentError):
                    async for _ in session.stream_async([{"role": "alien", "content": "x"}]):
                        pass
        asyncio.run(main())


class Life(Case):
    def test_closing_in_any_order(self):
        for order in ("es", "se", "eses", "sese", ""):
            engine = Engine()
            session = engine.session()
            session.respond(HOT, temperature=0)
            for which in order:
                (engine if which == "e" else session).close()
            if order:
                for call in (lambda: session.respond(HOT), lambda: session.tokens, lambda: len(session), session.fork):
                    with self.assertRaises(gemma4c.ArgumentError):
                        call()
                self.assertIn("closed", repr(session))
            del engine, session
            gc.collect()

    def test_a_stream_outlives_its_engine(self):
        engine = Engine()
        stream = engine.session().stream(LONG * 50)
        engine.close()
        del engine
        with self.assertRaises(gemma4c.Canceled):
            list(stream)

    def test_end_of_the_interpreter(self):
        for code in ("s = e.session(); t = s.stream('And God said'); next(t)",
                     "t = e.create_chat_completion([{'role': 'user', 'content': 'x'}], stream=True); next(t)",
                     "b = e.batch(['x'] * 9); next(b)",
                     "import threading; s = e.session(); threading.Thread(target=s.respond, args=('x' * 3000,)).start()",
                     "s = e.session(); s.respond('x', max_tokens=3); e.close(); e.close()"):
            done = python("import gemma4c; e = gemma4c.Engine(); " + code)
            self.assertNotIn("Segmentation", done.stderr)
            self.assertIn(done.returncode, (0, 1) if "Thread" in code else (0,), done.stderr)

    def test_keyboard_interrupt(self):
        code = """
import gemma4c, os, signal, threading, time
e = gemma4c.Engine(threads=1); s = e.session()
for call in (lambda: s.respond('And God said, Let there be ' * 300, max_tokens=3000),
             lambda: list(s.stream('And God said, Let there be ' * 300, max_tokens=3000)),
             lambda: s.complete('And God said, Let there be ' * 300, max_tokens=3000),
             lambda: list(e.batch(['And God said, Let there be ' * 100] * 50, max_tokens=300))):
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    begun = time.monotonic()
    try: call()
    except KeyboardInterrupt: print('stopped', time.monotonic() - begun < 1.0)
    assert str(s.respond('What is the opposite of hot?', temperature=0)) == 'The opposite of hot is cold.'
"""
        done = python(code)
        self.assertEqual(done.stdout.split(), ["stopped", "True"] * 4, done.stdout + done.stderr)

    def test_interrupts_in_a_batch(self):
        """Wherever it comes, also while the engine tells of tokens and answers: it is raised, and nothing is freed twice."""
        code = """
import gemma4c, os, random, signal, threading
e = gemma4c.Engine(threads=1); random.seed(1); heard = 0
for i in range(40):
    timer = threading.Timer(0.002 + random.random() * 0.03, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        while True: list(e.batch(['What is the opposite of hot?'] * 20, parallel=4, temperature=0, logprobs=3))
    except KeyboardInterrupt: heard += 1
print(heard, e.session().respond('What is the opposite of hot?', temperature=0))
"""
        done = python(code)
        self.assertEqual((done.stdout, done.stderr), (f"40 {COLD}\n", ""))

    def test_a_stream_in_a_cycle(self):
        """The collector may run on any thread, also on the one that answers: it waits for nobody."""
        with self.engine.session() as session:
            stream = session.stream(LONG * 50)
            stream.itself = stream
            del stream
            gc.collect()
            self.assertEqual(session.respond(HOT, temperature=0).text, COLD)

    def test_a_stream_on_two_threads(self):
        with self.engine.session() as session:
            stream, pieces = session.stream(HOT, temperature=0), []
            readers = [threading.Thread(target=lambda: pieces.extend(stream), daemon=True) for _ in range(3)]
            for r in readers:
                r.start()
            for r in readers:
                r.join(10)
            self.assertEqual([r.is_alive() for r in readers], [False] * 3)
            self.assertEqual(len("".join(pieces)), len(COLD))
            self.assertEqual(stream.answer.text, COLD)
            stream, raised = session.stream(LONG, max_tokens=20), []

            def read():  # a stream that another thread has begun
                try:
                    for _ in stream:
                        session.respond(HOT)
                except gemma4c.ArgumentError as e:
                    raised.append(e)

            reader = threading.Thread(target=read, daemon=True)
            reader.start()
            reader.join(10)
            self.assertIn("in a call already", str(raised))

    def test_threads(self):
        texts = []

        def work(session):
            for _ in range(3):
                texts.append(session.respond([{"role": "user", "content": HOT}], temperature=0).text)
        with self.engine.session() as shared, self.engine.session() as own:
            threads = [threading.Thread(target=work, args=(s,)) for s in (shared, shared, own)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
        self.assertEqual(texts, [COLD] * 9)

    def test_cancel_from_another_thread(self):
        with self.engine.session() as session:
            session.cancel()  # nothing is in progress: nothing happens
            self.assertEqual(session.respond(HOT, temperature=0).text, COLD)
            timer = threading.Timer(0.05, session.cancel)
            timer.start()
            with self.assertRaises(gemma4c.Canceled) as caught:
                session.respond(LONG * 100)
            self.assertEqual(caught.exception.code, "G4_ERR_CANCELED")
            self.assertEqual(session.respond(HOT, temperature=0).text, COLD)

    def test_cancel_while_a_grammar_is_made(self):
        """It ends this session's call alone: another's goes on."""
        members = {f"m{i}": {"type": "object", "properties": {f"n{i}_{k}": {"type": "string"} for k in range(6)}}
                   for i in range(2000)}
        schema, answers = {"type": "object", "properties": members}, []
        with self.engine.session() as cancelled, self.engine.session() as other:
            beside = threading.Thread(target=lambda: answers.append(other.respond(HOT, schema=schema, max_tokens=2)))
            beside.start()
            timer = threading.Timer(0.02, cancelled.cancel)
            timer.start()
            with self.assertRaises(gemma4c.Canceled):
                cancelled.respond(HOT, schema=schema, max_tokens=2)
            beside.join()
            self.assertEqual([a.usage.completion_tokens for a in answers], [2])

    def test_pickle(self):
        engine = pickle.loads(pickle.dumps(Engine(threads=1)))
        self.assertEqual(engine.info.n_threads, 1)
        self.assertEqual(str(engine.session().respond(HOT, temperature=0)), COLD)
        self.assertIs(type(pickle.loads(pickle.dumps(OfOurs(threads=1)))), OfOurs)
        self.assertNotIn(b"tiny.g4", pickle.dumps(engine))  # the package of the other side has it
        folder, here = tempfile.mkdtemp(), os.getcwd()
        try:
            os.chdir(EXAMPLES.parent)
            engine = Engine(os.path.relpath(engine.path))
            os.chdir(folder)
            self.assertEqual(pickle.loads(pickle.dumps(engine)).info.name, engine.info.name)
        finally:
            os.chdir(here)
            os.rmdir(folder)
        for thing in (engine.session(), gemma4c.load_media(EXAMPLES / "scene.png")):
            with self.assertRaises(TypeError):
                pickle.dumps(thing)
        answer = pickle.loads(pickle.dumps(self.ask(HOT)))
        self.assertEqual(answer.text, COLD)

    @unittest.skipUnless(hasattr(os, "fork"), "no fork")
    def test_fork(self):
        code = """
import gemma4c, os, sys
e = gemma4c.Engine(); s = e.session(); s.respond('What is the opposite of hot?')
pid = os.fork()
if pid == 0:
    said = 0
    for call in (lambda: s.respond('x'), lambda: e.session(), lambda: e.count_tokens('x'), lambda: len(s),
                 lambda: next(e.batch(['x'])), lambda: e.create_chat_completion([{'role': 'user', 'content': 'x'}])):
        try: call()
        except gemma4c.ArgumentError as error: said += 'fork' in str(error)
    s.close(); e.close()
    del s, e
    own = gemma4c.Engine()
    print(said, own.session().respond('What is the opposite of hot?', temperature=0), flush=True)
    sys.exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), s.respond('What is 39 - 1?', temperature=0))
"""
        done = python(code)
        self.assertEqual(done.stdout, f"6 {COLD}\n0 38\n", done.stderr)

    @unittest.skipUnless(hasattr(os, "fork"), "no fork")
    def test_fork_with_streams(self):
        """The child neither waits for its parent's threads nor reads what they say."""
        code = """
import gemma4c, os, signal, sys
e = gemma4c.Engine(); user = [{'role': 'user', 'content': 'And God said, Let there be ' * 50}]
streams = [e.session().stream(user, max_tokens=900), e.create_chat_completion(user, stream=True),
           e.batch([user] * 3, parallel=2)]
for s in streams: next(s)
pid = os.fork()
if pid == 0:
    signal.alarm(8)
    said = 0
    for s in streams:
        try: list(s)
        except gemma4c.ArgumentError as error: said += 'fork' in str(error)
        s.close()
    del s, streams
    sys.exit(said)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
        done = python(code)
        self.assertEqual(done.stdout, "3\n", done.stderr)

    def test_info(self):
        self.assertEqual(set(vars(self.engine.info)), set(gemma4c.EngineInfo.__annotations__))
        for name, kind in gemma4c.EngineInfo.__annotations__.items():
            self.assertEqual(type(getattr(self.engine.info, name)).__name__, kind, name)

    def test_log(self):
        lines = []
        Engine(log=lambda level, line: lines.append((level, line))).close()
        Engine(log=lambda level, line: 1 / 0).close()

    def test_errors(self):
        for path, kind in (("/nowhere.g4", OSError), (__file__, gemma4c.FormatError), (ROOT, gemma4c.Gemma4Error)):
            with self.assertRaises(kind) as caught:
                Engine(path)
            self.assertTrue(str(caught.exception))
        with self.assertRaises(gemma4c.ContextError):
            self.engine.session(context=64).respond("word " * 200)
        with self.assertRaises(TypeError):
            self.ask(HOT, temprature=0)

    def test_signals_and_allocations(self):
        before = _resident()
        for _ in range(30):
            with self.engine.session() as session:
                session.respond(HOT, temperature=0, schema=typing.Literal["cold", "warm"])
                list(session.stream(HOT, temperature=0))
        gc.collect()
        self.assertLess(_resident() - before, 64e6)


def _resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

