"""gemma4c as a chat model of LangChain (pip install langchain-core):

    from langchain_gemma4 import ChatGemma4
    model = ChatGemma4(path="model.g4", temperature=0)
    model.invoke("What is the opposite of hot?").content
    model.bind_tools([get_weather]).invoke("What is the weather in Oslo?").tool_calls

Messages and tools go through OpenAI's form, which LangChain writes and the engine reads."""

import json
from typing import Any, Optional

from gemma4c import Engine
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, convert_to_openai_messages
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr


class ChatGemma4(BaseChatModel):
    path: Optional[str] = None  # None: the tiny model of the package
    temperature: Optional[float] = None
    max_tokens: Optional[int] = None
    seed: Optional[int] = None
    _engine: Any = PrivateAttr(default=None)

    @property
    def _llm_type(self):
        return "gemma4c"

    def _request(self, messages, stop, more):
        if self._engine is None:
            self._engine = Engine(self.path)
        own = {"temperature": self.temperature, "max_tokens": self.max_tokens, "seed": self.seed, "stop": stop, **more}
        return dict(messages=convert_to_openai_messages(messages), **{k: v for k, v in own.items() if v is not None})

    def _generate(self, messages, stop=None, run_manager=None, **more):
        request = self._request(messages, stop, more)
        answer = self._engine.create_chat_completion(**request)
        choice, usage = answer["choices"][0], answer["usage"]
        said = choice["message"]
        message = AIMessage(
            content=said["content"] or "",
            tool_calls=[{"name": c["function"]["name"], "args": json.loads(c["function"]["arguments"]), "id": c["id"],
                         "type": "tool_call"} for c in said.get("tool_calls") or []],
            response_metadata={"finish_reason": choice["finish_reason"], "model_name": answer["model"]},
            usage_metadata={"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"],
                            "total_tokens": usage["total_tokens"]})
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(self, messages, stop=None, run_manager=None, **more):
        request = self._request(messages, stop, more)
        for chunk in self._engine.create_chat_completion(stream=True, **request):
            delta = chunk["choices"][0]["delta"] if chunk["choices"] else {}
            calls = [{"name": c["function"].get("name"), "args": c["function"].get("arguments"), "id": c.get("id"),
                      "index": c["index"], "type": "tool_call_chunk"} for c in delta.get("tool_calls") or []]
            piece = ChatGenerationChunk(message=AIMessageChunk(content=delta.get("content") or "", tool_call_chunks=calls))
            if run_manager:
                run_manager.on_llm_new_token(piece.text, chunk=piece)
            yield piece

    def bind_tools(self, tools, *, tool_choice=None, **more):
        if tool_choice is True or tool_choice == "any":
            tool_choice = "required"
        elif tool_choice and tool_choice not in ("auto", "none", "required"):
            tool_choice = {"type": "function", "function": {"name": tool_choice}}
        return self.bind(tools=[convert_to_openai_tool(t) for t in tools], tool_choice=tool_choice or None, **more)
