"""The adapter for OpenAI's SDK: with the SDK itself, of which a server is asked that speaks the wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import openai
import pytest

from tests.support import DEADLINE, running, serve, settings
from tests.support.model_server import ModelServer, client_of, delta, response_event
from velocity_ws import Broker, UpstreamError
from velocity_ws.adapters import openai as adapter

ROOM = "chat:7"
DONE = "data: [DONE]\n\n"
WEATHER = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1764547200, "status": "in_progress", "model": "gpt-5",
    "instructions": "Our secret instructions.", "output": [], "parallel_tool_calls": True, "tool_choice": "auto",
    "tools": [], "error": None, "incomplete_details": None, "metadata": {}, "temperature": 1.0, "top_p": 1.0,
}  # fmt: skip


def arguments(text: str) -> dict[str, Any]:
    return {"index": 0, "function": {"arguments": text}}


def response(**changed: Any) -> dict[str, Any]:
    return {**RESPONSE, **changed}


def said(text: str) -> dict[str, Any]:
    return response_event(
        "output_text.delta", item_id="msg_1", output_index=0, content_index=0, delta=text, logprobs=[]
    )


Adapt = Callable[[Any], AsyncGenerator[Any, None]]


async def all_of(server: ModelServer, adapt: Adapt, *, of_responses: bool = False) -> list[Any]:
    """What an adapter makes of an answer."""
    async with serve(server.app) as address, client_of(address) as client:
        if of_responses:
            call: Any = client.responses.create(model="gpt-5", input="why?", stream=True)
        else:
            call = client.chat.completions.create(
                model="gpt-5", messages=[{"role": "user", "content": "why?"}], stream=True
            )
        return [each async for each in adapt(call)]


# --- text


async def test_a_chat_completion_is_the_text_of_its_first_choice() -> None:
    server = ModelServer(
        {**delta(), "choices": []},  # what Azure begins with
        delta(role="assistant", content="", refusal=None),
        delta(content="It "),
        delta(content="Other ", index=1),
        delta(content="scatters 😀"),
        delta("stop"),
        {**delta(), "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
        DONE,
    )
    assert await all_of(server, adapter.text) == ["It ", "scatters 😀"]
    assert server.asked[0]["stream"] is True


@pytest.mark.parametrize("adapt", [adapter.text, adapter.ui_message_chunks, adapter.items])
async def test_what_azure_sends_of_its_filters_is_passed_over(adapt: Adapt) -> None:
    found: dict[str, Any] = {
        "index": 0,
        "finish_reason": None,
        "content_filter_results": {},
        "content_filter_offsets": {},
    }
    nothing = [{**delta(), "choices": [found]}, {**delta(), "choices": None}]
    said = await all_of(ModelServer(*nothing, delta(content="It "), *nothing, delta("stop"), DONE), adapt)
    assert [each for each in said if each == "It " or "It " in json.dumps(each)]


async def test_a_refusal_is_text() -> None:
    server = ModelServer(delta(refusal="I will "), delta(refusal="not."), delta("stop"), DONE)
    assert "".join(await all_of(server, adapter.text)) == "I will not."


async def test_a_response_is_its_text() -> None:
    refused = response_event("refusal.delta", item_id="msg_1", output_index=0, content_index=1, delta="No more.")
    server = ModelServer(
        response_event("created", response=RESPONSE),
        said("It "),
        said("scatters."),
        refused,
        response_event("completed", response=response(status="completed")),
    )
    assert await all_of(server, adapter.text, of_responses=True) == ["It ", "scatters.", "No more."]


async def test_a_stream_that_was_awaited_is_taken_as_well() -> None:
    async with (
        serve(ModelServer(delta(content="It "), delta("stop"), DONE).app) as address,
        client_of(address) as client,
    ):
        stream = await client.chat.completions.create(model="gpt-5", messages=[], stream=True)
        assert [each async for each in adapter.text(stream)] == ["It "]


# --- failures


async def test_what_is_no_stream_is_refused() -> None:
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-5", "choices": []}
    async with serve(ModelServer(answer, status=201).app) as address, client_of(address) as client:
        call: Any = client.chat.completions.create(model="gpt-5", messages=[])
        with pytest.raises(TypeError, match="stream=True"):
            await anext(adapter.text(call))


@pytest.mark.parametrize("of_responses", [False, True])
async def test_an_answer_that_ends_without_being_complete_has_failed(of_responses: bool) -> None:
    server = ModelServer(said("It ") if of_responses else delta(content="It "))
    with pytest.raises(UpstreamError, match="ask again"):
        await all_of(server, adapter.text, of_responses=of_responses)


async def test_an_error_in_the_middle_of_a_chat_is_that_of_the_sdk() -> None:
    error = {"error": {"message": "The server had an error", "type": "server_error", "code": None}}
    with pytest.raises(openai.APIError, match="had an error"):
        await all_of(ModelServer(delta(content="It "), error), adapter.text)


async def test_an_error_of_a_response_is_raised_though_the_sdk_only_tells_it() -> None:
    error = {"type": "error", "code": "rate_limit", "message": "Slower", "param": None, "sequence_number": 1}
    with pytest.raises(UpstreamError, match=r"Slower \(rate_limit\)"):
        await all_of(ModelServer(said("It "), error), adapter.text, of_responses=True)


@pytest.mark.parametrize(
    ("error", "told"),
    [({"code": "server_error", "message": "Broken"}, r"Broken \(server_error\)"), (None, "has failed")],
)
async def test_a_failed_response_is_raised_though_the_sdk_only_tells_it(error: Any, told: str) -> None:
    failed = response_event("failed", response=response(status="failed", error=error))
    with pytest.raises(UpstreamError, match=told):
        await all_of(ModelServer(said("It "), failed), adapter.items, of_responses=True)


async def test_a_request_that_is_refused_ends_the_stream_as_error_and_on_error_is_told() -> None:
    server = ModelServer({"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}, status=401)
    broker = Broker(settings())
    told: asyncio.Queue[BaseException] = asyncio.Queue()

    @broker.on_error
    async def failed(error: Exception) -> None:
        told.put_nowait(error)

    async with running(broker), serve(server.app) as address, client_of(address) as client:
        create = client.chat.completions.create
        await broker.streams.start(
            "a", room=ROOM, source=lambda: adapter.text(create(model="gpt-5", messages=[], stream=True))
        )
        async with asyncio.timeout(DEADLINE):
            assert await broker.streams.wait("a") == "error"
            assert isinstance(await told.get(), openai.AuthenticationError)


# --- the stream, and the upstream


async def test_a_stream_that_is_cancelled_closes_the_upstream() -> None:
    server = ModelServer(delta(content="It "), asyncio.Event())  # which is never set
    broker = Broker(settings())
    async with running(broker), serve(server.app) as address, client_of(address) as client:
        create = client.chat.completions.create
        stream = await broker.streams.start(
            "a", room=ROOM, source=lambda: adapter.text(create(model="gpt-5", messages=[], stream=True))
        )
        async with asyncio.timeout(DEADLINE):
            assert await anext(broker.streams.follow("a")) == "It "
            assert await stream.cancel()
            assert await stream.wait() == "cancelled"
            await server.closed.wait()


async def test_who_leaves_an_adapter_closes_the_upstream() -> None:
    server = ModelServer(delta(content="It "), asyncio.Event())
    async with serve(server.app) as address, client_of(address) as client:
        text = adapter.text(client.chat.completions.create(model="gpt-5", messages=[], stream=True))
        assert await anext(text) == "It "
        await text.aclose()
        async with asyncio.timeout(DEADLINE):
            await server.closed.wait()


async def test_a_stream_that_is_there_asks_the_model_nothing_again() -> None:
    server = ModelServer(delta(content="It "), delta("stop"), DONE)
    broker = Broker(settings())
    async with running(broker), serve(server.app) as address, client_of(address) as client:
        create = client.chat.completions.create
        for _ in range(2):
            await broker.streams.start(
                "a", room=ROOM, source=lambda: adapter.text(create(model="gpt-5", messages=[], stream=True))
            )
        async with asyncio.timeout(DEADLINE):
            assert await broker.streams.wait("a") == "done"
        assert (await broker.streams.read("a")).text == "It "
    assert len(server.asked) == 1


# --- items


async def test_items_of_a_chat_are_what_is_on_the_wire() -> None:
    server = ModelServer(delta(content="It "), delta("stop"), DONE)
    items = await all_of(server, adapter.items)
    wanted = delta(content="It ")
    del wanted["obfuscation"]
    assert items[0] == wanted
    assert json.loads(json.dumps(items)) == items


async def test_items_of_a_response_repeat_no_instructions_and_no_output() -> None:
    usage = {
        "input_tokens": 1, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 3,
    }  # fmt: skip
    server = ModelServer(
        response_event("created", response=RESPONSE),
        {**said("It "), "obfuscation": "pAdD1nG"},
        response_event("completed", response=response(status="completed", usage=usage)),
    )
    items = await all_of(server, adapter.items, of_responses=True)
    assert "secret" not in json.dumps(items)
    assert items[1] == said("It ")
    kept = {"id": "resp_1", "status": "completed", "model": "gpt-5", "incomplete_details": None, "usage": usage}
    assert items[2] == response_event("completed", response=kept)


# --- UI messages


async def test_a_chat_as_a_ui_message_has_what_was_thought_the_text_and_the_calls_of_tools() -> None:
    server = ModelServer(
        delta(role="assistant", content="", reasoning_content="Hmm"),
        delta(content="Let me "),
        delta(content="see."),
        delta(tool_calls=[WEATHER]),
        delta(tool_calls=[arguments('{"city":')]),
        delta(tool_calls=[arguments(' "Bern"}')]),
        delta("tool_calls"),
        DONE,
    )
    assert await all_of(server, adapter.ui_message_chunks) == [
        {"type": "start"},
        {"type": "start-step"},
        {"type": "reasoning-start", "id": "reasoning-1"},
        {"type": "reasoning-delta", "id": "reasoning-1", "delta": "Hmm"},
        {"type": "reasoning-end", "id": "reasoning-1"},
        {"type": "text-start", "id": "text-2"},
        {"type": "text-delta", "id": "text-2", "delta": "Let me "},
        {"type": "text-delta", "id": "text-2", "delta": "see."},
        {"type": "text-end", "id": "text-2"},
        {"type": "tool-input-start", "toolCallId": "call_1", "toolName": "weather"},
        {"type": "tool-input-delta", "toolCallId": "call_1", "inputTextDelta": '{"city":'},
        {"type": "tool-input-delta", "toolCallId": "call_1", "inputTextDelta": ' "Bern"}'},
        {"type": "tool-input-available", "toolCallId": "call_1", "toolName": "weather", "input": {"city": "Bern"}},
        {"type": "finish-step"},
        {"type": "finish", "finishReason": "tool-calls"},
    ]


async def test_a_call_whose_input_is_no_json_is_told_as_an_error_of_the_input() -> None:
    server = ModelServer(delta(tool_calls=[WEATHER]), delta(tool_calls=[arguments("{")]), delta("length"), DONE)
    chunks = await all_of(server, adapter.ui_message_chunks)
    wrong = {"toolCallId": "call_1", "toolName": "weather", "input": "{", "errorText": "The input is no JSON."}
    assert {"type": "tool-input-error", **wrong} in chunks
    assert chunks[-1] == {"type": "finish", "finishReason": "length"}


@pytest.mark.parametrize(
    ("finish", "reason"), [("stop", "stop"), ("content_filter", "content-filter"), ("something_new", "other")]
)
async def test_why_a_chat_has_ended_is_told_in_the_words_of_the_ai_sdk(finish: str, reason: str) -> None:
    chunks = await all_of(ModelServer(delta(finish), DONE), adapter.ui_message_chunks)
    assert chunks[-1] == {"type": "finish", "finishReason": reason}


async def test_a_response_as_a_ui_message_has_all_of_its_parts() -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": ""}
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}
    page = {"type": "url_citation", "url": "https://example.com/", "title": "Sky", "start_index": 0, "end_index": 2}
    place = {"output_index": 0, "content_index": 0}
    server = ModelServer(
        response_event("created", response=RESPONSE),
        response_event("output_item.added", output_index=0, item=thought),
        response_event("reasoning_summary_text.delta", item_id="rs_1", output_index=0, summary_index=0, delta="Hmm"),
        response_event("output_item.done", output_index=0, item=thought),
        said("It "),
        response_event("output_text.annotation.added", item_id="msg_1", annotation_index=0, annotation=page, **place),
        response_event(
            "output_text.annotation.added",
            item_id="msg_1",
            annotation_index=1,
            annotation={"type": "file_path"},
            **place,
        ),
        response_event(
            "content_part.done",
            item_id="msg_1",
            part={"type": "output_text", "text": "It ", "annotations": []},
            **place,
        ),
        response_event("output_item.added", output_index=2, item=call),
        response_event("function_call_arguments.delta", item_id="fc_1", output_index=2, delta='{"city": "Bern"}'),
        response_event(
            "function_call_arguments.done", item_id="fc_1", output_index=2, name="weather", arguments='{"city": "Bern"}'
        ),
        response_event("completed", response=response(status="completed")),
    )
    assert await all_of(server, adapter.ui_message_chunks, of_responses=True) == [
        {"type": "start"},
        {"type": "start-step"},
        {"type": "reasoning-start", "id": "reasoning-1"},
        {"type": "reasoning-delta", "id": "reasoning-1", "delta": "Hmm"},
        {"type": "reasoning-end", "id": "reasoning-1"},
        {"type": "text-start", "id": "text-2"},
        {"type": "text-delta", "id": "text-2", "delta": "It "},
        {"type": "source-url", "sourceId": "https://example.com/", "url": "https://example.com/", "title": "Sky"},
        {"type": "text-end", "id": "text-2"},
        {"type": "tool-input-start", "toolCallId": "call_1", "toolName": "weather"},
        {"type": "tool-input-delta", "toolCallId": "call_1", "inputTextDelta": '{"city": "Bern"}'},
        {"type": "tool-input-available", "toolCallId": "call_1", "toolName": "weather", "input": {"city": "Bern"}},
        {"type": "finish-step"},
        {"type": "finish", "finishReason": "tool-calls"},
    ]


@pytest.mark.parametrize(("why", "reason"), [("max_output_tokens", "length"), ("content_filter", "content-filter")])
async def test_an_incomplete_response_says_why(why: str, reason: str) -> None:
    incomplete = response(status="incomplete", incomplete_details={"reason": why})
    server = ModelServer(said("It "), response_event("incomplete", response=incomplete))
    chunks = await all_of(server, adapter.ui_message_chunks, of_responses=True)
    assert chunks[-1] == {"type": "finish", "finishReason": reason}
