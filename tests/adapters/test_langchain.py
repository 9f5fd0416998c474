"""The adapter for LangChain: with langchain-core and langgraph themselves, and models that say what they are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult, GenerationChunk
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from tests.support import DEADLINE, running, settings
from tests.support.graphs import CALL, HUNG, QUESTION, SECRET, Scripted, agent, events, piece, weather
from velocity_ws import Broker
from velocity_ws.adapters import langchain as adapter
from velocity_ws.adapters.langchain_values import plain

ROOM = "chat:7"


class Whole(BaseChatModel):
    """A model that does not stream."""

    @property
    def _llm_type(self) -> str:
        return "whole"

    def _generate(self, messages: list[BaseMessage], *args: Any, **more: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("All at once."))])


async def joined(said: AsyncIterator[str]) -> str:
    return "".join([each async for each in said])


async def take(said: AsyncIterator[Any], into: list[Any]) -> None:
    """Put into a list what is said, up to what is raised."""
    async for each in said:
        into.append(each)  # noqa: PERF401 - what came before an exception is kept


# --- text


async def test_the_text_of_a_chain_is_what_its_model_says() -> None:
    chain = ChatPromptTemplate.from_template("{x}") | Scripted(scripts=[["It ", "", "scatters 😀"]]) | StrOutputParser()
    assert [each async for each in adapter.text(events(chain, {"x": "why?"}))] == ["It ", "scatters 😀"]


async def test_the_text_of_a_graph_is_what_all_of_its_models_say() -> None:
    model = Scripted(scripts=[["Let me see. ", *CALL], ["It is 21."]])
    assert await joined(adapter.text(events(agent(model), QUESTION))) == "Let me see. It is 21."


async def test_blocks_of_content_are_text_without_what_was_thought() -> None:
    blocks: list[Any] = [{"type": "thinking", "thinking": "Hmm"}, {"type": "text", "text": "It "}, "scatters"]
    assert await joined(adapter.text(events(Scripted(scripts=[[AIMessageChunk(content=blocks)]])))) == "It scatters"


async def test_a_model_that_does_not_stream_is_said_as_a_whole() -> None:
    assert [each async for each in adapter.text(events(Whole()))] == ["All at once."]


class Plain(FakeListLLM):
    """A model that is no chat model, and streams as those of providers do."""

    async def _astream(self, prompt: str, *args: Any, run_manager: Any = None, **more: Any) -> AsyncIterator[Any]:
        for said in self.responses:
            chunk = GenerationChunk(text=said)
            await run_manager.on_llm_new_token(said, chunk=chunk)
            yield chunk


@pytest.mark.parametrize("model", [Plain(responses=["It ", "scatters"]), FakeListLLM(responses=["It scatters"])])
async def test_a_model_that_is_no_chat_model_is_read_as_well(model: FakeListLLM) -> None:
    assert await joined(adapter.text(events(model))) == "It scatters"
    chunks = [each async for each in adapter.ui_message_chunks(events(model))]
    assert "".join([each.get("delta", "") for each in chunks]) == "It scatters"
    assert [each["type"] for each in chunks][-3:] == ["text-end", "finish-step", "finish"]
    items = [each async for each in adapter.items(events(model))]
    assert json.loads(json.dumps(items)) == items
    chain = PromptTemplate.from_template("{x}") | model
    assert await joined(adapter.text(events(chain, {"x": "why?"}))) == "It scatters"


async def test_what_a_chain_raises_ends_the_stream_as_error_and_on_error_is_told() -> None:
    broker = Broker(settings())
    told: asyncio.Queue[BaseException] = asyncio.Queue()

    @broker.on_error
    async def failed(error: Exception) -> None:
        told.put_nowait(error)

    model = Scripted(scripts=[["It ", RuntimeError("the provider has gone")]])
    async with running(broker), asyncio.timeout(DEADLINE):
        stream = await broker.streams.start("a", room=ROOM, source=adapter.text(events(agent(model), QUESTION)))
        assert await stream.wait() == "error"
        assert (await stream.read()).text == "It "
        assert "the provider has gone" in str(await told.get())


async def test_a_stream_that_is_cancelled_ends_the_graph() -> None:
    broker = Broker(settings())
    model = Scripted(scripts=[["It ", HUNG]], closed=[])
    async with running(broker), asyncio.timeout(DEADLINE):
        stream = await broker.streams.start("a", room=ROOM, source=adapter.text(events(agent(model), QUESTION)))
        assert await anext(broker.streams.follow("a")) == "It "
        assert await stream.cancel()
        assert await stream.wait() == "cancelled"
        assert len(asyncio.all_tasks()) < 20
    assert model.closed == ["closed"]


# --- items


async def test_items_are_json_and_repeat_no_prompt() -> None:
    model = Scripted(scripts=[["Let me see. ", *CALL], ["It is 21."]])
    items = [each async for each in adapter.items(events(agent(model), QUESTION))]
    assert json.loads(json.dumps(items)) == items
    assert SECRET not in json.dumps(items)
    assert [(each["event"], each["name"]) for each in items] == [
        ("on_chain_start", "model"),
        ("on_chat_model_start", "Scripted"),
        *[("on_chat_model_stream", "Scripted")] * 5,
        ("on_chat_model_end", "Scripted"),
        ("on_chain_end", "model"),
        ("on_chain_start", "tools"),
        ("on_tool_start", "weather"),
        ("on_custom_event", "progress"),
        ("on_tool_end", "weather"),
        ("on_chain_end", "tools"),
        ("on_chain_start", "model"),
        ("on_chat_model_start", "Scripted"),
        *[("on_chat_model_stream", "Scripted")] * 2,
        ("on_chat_model_end", "Scripted"),
        ("on_chain_end", "model"),
    ]
    assert {each["node"] for each in items} == {"model", "tools"}
    first = items[2]["data"]["chunk"]
    assert (first["type"], first["text"], first["id"][:3]) == ("AIMessageChunk", "Let me see. ", "lc_")
    call = {"name": "weather", "args": {"city": "Bern"}, "id": "call_1", "type": "tool_call"}
    assert items[7]["data"]["output"]["tool_calls"] == [call]
    assert items[10]["data"] == {"input": {"city": "Bern"}}
    assert items[11]["data"] == {"done": 1, "city": "Bern"}
    returned = items[12]["data"]["output"]
    assert (returned["type"], returned["tool_call_id"]) == ("tool", "call_1")
    assert json.loads(returned["text"]) == {"city": "Bern", "degrees": 21}


async def test_what_a_tool_raises_is_told_to_nobody() -> None:
    items: list[Any] = []
    with pytest.raises(ValueError, match="no such city"):
        await take(adapter.items(events(weather, {"city": "Nowhere"})), items)
    assert items[-1]["event"] == "on_tool_error"
    assert "database" not in json.dumps(items)


class Place(BaseModel):
    name: str
    since: datetime


@dataclass
class Degrees:
    celsius: float


def test_values_are_json_whatever_they_are() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    message = AIMessage("It", usage_metadata=usage, additional_kwargs={"reasoning_content": "Hmm"})
    when = datetime(2026, 12, 1, tzinfo=UTC)
    assert plain({"a": message, 1: [Place(name="Bern", since=when), Degrees(21.5)]}) == {
        "a": {"type": "ai", "text": "It", "usage_metadata": usage, "reasoning": "Hmm"},
        "1": [{"name": "Bern", "since": "2026-12-01T00:00:00Z"}, {"celsius": 21.5}],
    }
    assert plain([ValueError("our secret"), object(), message.text]) == [None, None, "It"]
    assert plain(ToolMessage("21", tool_call_id="call_1", status="error"))["status"] == "error"


# --- UI messages


async def test_a_graph_as_a_ui_message_has_its_texts_its_tools_and_custom_events() -> None:
    thought = AIMessageChunk(
        content=[{"type": "thinking", "thinking": "Hmm"}], response_metadata={"model_provider": "anthropic"}
    )
    model = Scripted(scripts=[[thought, "Let me see.", *CALL], ["It is 21."]])
    assert [each async for each in adapter.ui_message_chunks(events(agent(model), QUESTION))] == [
        {"type": "start"},
        {"type": "start-step"},
        {"type": "reasoning-start", "id": "reasoning-1"},
        {"type": "reasoning-delta", "id": "reasoning-1", "delta": "Hmm"},
        {"type": "reasoning-end", "id": "reasoning-1"},
        {"type": "text-start", "id": "text-2"},
        {"type": "text-delta", "id": "text-2", "delta": "Let me see."},
        {"type": "text-end", "id": "text-2"},
        {"type": "tool-input-start", "toolCallId": "call_1", "toolName": "weather"},
        {"type": "tool-input-delta", "toolCallId": "call_1", "inputTextDelta": '{"city":'},
        {"type": "tool-input-delta", "toolCallId": "call_1", "inputTextDelta": ' "Bern"}'},
        {"type": "tool-input-available", "toolCallId": "call_1", "toolName": "weather", "input": {"city": "Bern"}},
        {"type": "data-progress", "data": {"done": 1, "city": "Bern"}},
        {"type": "tool-output-available", "toolCallId": "call_1", "output": '{"city": "Bern", "degrees": 21}'},
        {"type": "finish-step"},
        {"type": "start-step"},
        {"type": "text-start", "id": "text-3"},
        {"type": "text-delta", "id": "text-3", "delta": "It is 21."},
        {"type": "text-end", "id": "text-3"},
        {"type": "finish-step"},
        {"type": "finish"},
    ]


async def test_a_tool_that_no_model_has_called_stands_under_its_run() -> None:
    async def ask(_: Any) -> Any:
        return await weather.ainvoke({"city": "Bern"})

    chunks = [each async for each in adapter.ui_message_chunks(events(RunnableLambda(ask)))]
    run = chunks[2]["toolCallId"]
    assert chunks[2:4] == [
        {"type": "tool-input-available", "toolCallId": run, "toolName": "weather", "input": {"city": "Bern"}},
        {"type": "tool-output-available", "toolCallId": run, "output": {"city": "Bern", "degrees": 21}},
    ]


@pytest.mark.parametrize("is_handled", [True, False])
async def test_a_tool_that_fails_is_told_as_an_error_of_the_tool(is_handled: bool) -> None:
    call = piece('{"city": "Nowhere"}', name="weather", id="call_1")
    graph = agent(Scripted(scripts=[[call], ["Sorry."]]), handle_tool_errors="No such city." if is_handled else False)
    chunks: list[Any] = []
    try:
        await take(adapter.ui_message_chunks(events(graph, QUESTION)), chunks)
    except ValueError:
        assert not is_handled
    failed = next(each for each in chunks if each["type"] == "tool-output-error")
    assert failed["toolCallId"] == "call_1"
    assert failed["errorText"] == "The tool has failed."
    assert "database" not in json.dumps(chunks)
