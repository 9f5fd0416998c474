"""What the pages of adapters show does what they say of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from tests.support import DEADLINE, serve
from tests.support.chat_page import chat_page, project_of, text_of
from tests.support.model_server import ModelServer, client_of, response_event
from tests.support.pages import blocks, module_of, program_of
from tests.support.streaming import ROOM, join, read

NAMES = ("adapters-openai.md", "adapters-langchain.md", "adapters-ai-sdk.md", "adapters.md")
pytestmark = pytest.mark.timeout(300)  # for what npm brings
SAID: dict[str, Any] = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
RESPONSE = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt-5", "output": [], "tools": []}
WHOLE = response_event("completed", response={**RESPONSE, "status": "completed"})


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with module_of(f"from tests.support.yours import Any, graph\n{program_of(*NAMES)}") as module:
        yield module


def said(text: str) -> dict[str, Any]:
    return response_event("output_text.delta", delta=text, **SAID)


async def test_a_model_of_openai_is_asked_once_for_a_question_that_is_sent_twice(page: Any) -> None:
    server = ModelServer(said("It "), said("scatters."), WHOLE)
    async with serve(server.app) as there, client_of(there) as page.model, serve(page.app) as address:
        async with address.connect() as peer:
            await join(peer)
            await peer.send("ask", {"id": "a", "text": "why?"}, room=ROOM)
            assert (await read(peer, "a")).text == "It scatters."
            await peer.send("ask", {"id": "a", "text": "why?"}, id=2, room=ROOM)
            assert (await peer.receive())["event"] == "reply"
    assert [asked["input"] for asked in server.asked] == ["why?"]


async def test_a_graph_is_read_as_items(page: Any) -> None:
    page.graph = GenericFakeChatModel(messages=iter([AIMessage("It scatters.")])).with_config({"run_name": "graph"})
    ask = page.graph.astream_events
    page.graph = type(
        "Graph", (), {"astream_events": staticmethod(lambda given, version: ask("why?", version=version))}
    )
    async with serve(page.app) as address, address.connect() as peer:
        await join(peer)
        await peer.send("research", {"id": "a", "text": "why?"}, room=ROOM)
        items = (await read(peer, "a")).items
    assert "".join([item["data"]["chunk"]["text"] for item in items if "chunk" in item["data"]]) == "It scatters."


def test_the_items_that_are_shown_have_the_form_of_items() -> None:
    (block,) = blocks("docs/adapters-langchain.md", "json")
    for line in block.source.splitlines():
        assert json.loads(line).keys() == {"event", "name", "run_id", "node", "data"}


@pytest.mark.parametrize("sdk", ["ai6"])
async def test_a_chat_resumes_and_is_stopped(page: Any, tmp_path: Path, sdk: str) -> None:
    server = ModelServer(said("It "), asyncio.Event())  # which is never set
    async with serve(server.app) as there, client_of(there) as page.model, serve(page.app) as address:
        async with chat_page(project_of(tmp_path), sdk, address.http, "7") as chat:
            chat.begin("send", "why?")
            await chat.shows("It ")
            await chat.do("reload")
            chat.begin("resume")
            await chat.shows("It ")
            async with httpx.AsyncClient(timeout=DEADLINE) as client:
                assert (await client.post(f"{address.http}/api/chat/7/stop")).status_code == 200
            await chat.done("resume")
            assert (chat.status, text_of(chat.answer)) == ("ready", "It ")
        async with asyncio.timeout(DEADLINE):
            await server.closed.wait()
    assert server.asked[0]["input"] == "why?"


async def test_the_answer_of_a_backend_is_given_on(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = [{"type": "start"}, {"type": "text-start", "id": "1"}, {"type": "text-end", "id": "1"}, {"type": "finish"}]
    answer = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text=answer))
    body = {"id": "7", "messages": [{"role": "user", "parts": [{"type": "text", "text": "why?"}]}]}
    async with serve(page.app) as address, httpx.AsyncClient(timeout=DEADLINE) as client:
        monkeypatch.setattr(page.httpx, "AsyncClient", partial(httpx.AsyncClient, transport=transport))
        response = await client.post(f"{address.http}/api/agent", json=body)
    first, *rest = [json.loads(event.removeprefix("data: ")) for event in response.text.split("\n\n")[:-2]]
    assert first["type"] == "start"
    assert rest == chunks[1:]
