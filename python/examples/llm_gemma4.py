"""gemma4c as a plugin of llm (https://llm.datasette.io): put this file on the path, or into a package with the entry point

    [project.entry-points.llm]
    gemma4 = "llm_gemma4"

Then: llm -m gemma4 'What is the opposite of hot?', with -a picture.png, --schema, -T tool. GEMMA4_MODEL names the model
file; without it the tiny one of the package answers."""

import os
from typing import Optional

import llm
from gemma4c import Engine, tool_of
from pydantic import Field


@llm.hookimpl
def register_models(register):
    register(Gemma4())


class Gemma4(llm.Model):
    model_id = "gemma4"
    can_stream = True
    supports_schema = True
    supports_tools = True
    attachment_types = {"image/png", "image/jpeg", "image/gif", "image/webp", "audio/wav", "audio/mpeg"}
    _engine = None

    class Options(llm.Options):
        temperature: Optional[float] = Field(default=None, description="0 takes the likeliest token", ge=0)
        max_tokens: Optional[int] = Field(default=None, description="Tokens of the answer at most", ge=1)
        seed: Optional[int] = Field(default=None, description="Of the random numbers", ge=0)

    def engine(self):
        if Gemma4._engine is None:
            Gemma4._engine = Engine(os.environ.get("GEMMA4_MODEL"))
        return Gemma4._engine

    def execute(self, prompt, stream, response, conversation):
        session = self.engine().session()
        messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
        for earlier in conversation.responses if conversation else []:
            messages += self.question(earlier.prompt)
            answer = {"role": "assistant", "content": earlier.text_or_raise()}
            calls = earlier.tool_calls_or_raise()
            if calls:
                answer["tool_calls"] = [{"id": c.tool_call_id, "type": "function", "function": {
                    "name": c.name, "arguments": c.arguments}} for c in calls]
            messages.append(answer)
        messages += self.question(prompt)
        tools = [tool_of({"type": "function", "function": {"name": t.name, "description": t.description or "",
                                                           "parameters": t.input_schema}}) for t in prompt.tools]
        options = {k: v for k, v in prompt.options.model_dump().items() if v is not None}
        pieces = session.stream(messages, tools=tools or None, schema=prompt.schema, **options)
        yield from pieces
        for call in pieces.answer.calls:
            response.add_tool_call(llm.ToolCall(tool_call_id=call.id, name=call.name, arguments=call.arguments))
        usage = pieces.answer.usage
        response.set_usage(input=usage.prompt_tokens, output=usage.completion_tokens)
        session.close()

    @staticmethod
    def question(prompt):
        """The messages of one turn: results of calls, or what the user says and shows."""
        if prompt.tool_results:
            return [{"role": "tool", "tool_call_id": r.tool_call_id, "name": r.name, "content": r.output}
                    for r in prompt.tool_results]
        return [{"role": "user", "content": [a.content_bytes() for a in prompt.attachments] + [prompt.prompt or ""]}]
