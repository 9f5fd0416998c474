"""Models, tools and graphs of LangChain that say what a test tells them. Knows no adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.callbacks import adispatch_custom_event
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage, ToolCallChunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import Field

__all__ = ["CALL", "HUNG", "QUESTION", "SECRET", "Scripted", "agent", "events", "piece", "weather"]

SECRET = "Our secret prompt."
HUNG = asyncio.CancelledError
"""What stands in a script for a model that says nothing more."""


class Scripted(BaseChatModel):
    """A model that says one script after the other: texts, chunks, an error to raise, or `HUNG`."""

    scripts: list[Any]
    closed: list[str] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(self, messages: list[BaseMessage], *args: Any, **more: Any) -> ChatResult:
        raise NotImplementedError

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **more: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        try:
            for each in self.scripts.pop(0):
                if isinstance(each, Exception):
                    raise each
                if each is HUNG:
                    await asyncio.Event().wait()
                yield ChatGenerationChunk(message=AIMessageChunk(content=each) if isinstance(each, str) else each)
        finally:
            self.closed.append("closed")


@tool
async def weather(city: str) -> dict[str, Any]:
    """The weather in a city."""
    await adispatch_custom_event("progress", {"done": 1, "city": city})
    if city == "Nowhere":
        raise ValueError("no such city: our database is at 10.0.0.1")
    return {"city": city, "degrees": 21}


def piece(args: str, **first: str) -> AIMessageChunk:
    """A piece of a call of a tool."""
    name, id_ = first.get("name"), first.get("id")
    return AIMessageChunk(content="", tool_call_chunks=[ToolCallChunk(name=name, id=id_, args=args, index=0)])


CALL = [piece("", name="weather", id="call_1"), piece('{"city":'), piece(' "Bern"}')]


def agent(model: BaseChatModel, **options: Any) -> Any:
    """A graph of LangGraph: a model, and the tool that it may call."""

    async def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke([("system", SECRET), *state["messages"]])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", ask)
    graph.add_node("tools", ToolNode([weather], **options))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


def events(runnable: Any, given: Any = "why?") -> Any:
    return runnable.astream_events(given, version="v2")


QUESTION = {"messages": [HumanMessage("why?")]}
