"""The adapter for Vercel's AI SDK: with the SDK itself, in a page without a browser, and by HTTP as it is said."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from starlette.responses import Response

from tests.support import DEADLINE, SERVER_KINDS, Address, ServerKind, eventually, running, serve, settings
from tests.support.chat_page import SDKS, ChatPage, chat_page, project_of, text_of
from tests.support.dead_network import network
from tests.support.graphs import CALL, QUESTION, Scripted, agent, events, piece
from tests.support.model_server import ModelServer, client_of, delta
from tests.support.node_tools import find_node, node_environment
from tests.support.streaming import Gate
from velocity_ws import BackplaneUnavailable, Broker, UpstreamError
from velocity_ws.adapters import ai_sdk, langchain, openai

pytestmark = pytest.mark.timeout(300)  # for what npm brings
ROOM = "chat:7"
READER = "velocity-ws ui message"


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project_of(tmp_path_factory.mktemp("chat"))


class Chat:
    """An application with chats, and what it is told to answer next.

    Attributes:
        source: what answers the next question, as `Gate.source`.
    """

    def __init__(self, **options: Any) -> None:
        self.app = FastAPI()
        self.broker = Broker(settings(**options))
        self.broker.attach(self.app)
        self.source: Any = None
        self.asked: list[Any] = []
        self.app.post("/api/chat")(self._ask)
        self.app.get("/api/chat/{chat_id}/stream")(self._resume)
        self.app.get("/streams/{stream_id}")(self._read)

    @property
    def id(self) -> str:
        """The id of the last answer."""
        return f"answer-{len(self.asked)}"

    async def _ask(self, body: dict[str, Any]) -> Response:
        self.asked.append(body)
        await self.broker.streams.start(self.id, room=f"chat:{body['id']}", source=self.source)
        return ai_sdk.UIMessageStreamResponse(self.broker, self.id)

    async def _resume(self, chat_id: str) -> Response:
        return await ai_sdk.resume(self.broker, f"chat:{chat_id}")

    async def _read(self, stream_id: str) -> Response:
        return ai_sdk.UIMessageStreamResponse(self.broker, stream_id, message_id="m-1", headers={"x-ours": "1"})


def chunks_in(text: str) -> list[Any]:
    """The chunks of a response, which says in the end that it is whole."""
    *events, last, nothing = text.split("\n\n")
    assert (last, nothing) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events if not event.startswith(":")]


async def get(address: Address, path: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        return await client.get(f"{address.http}{path}")


# --- in the page


@asynccontextmanager
async def cut_page(project: Path, sdk: str) -> AsyncIterator[tuple[ChatPage, Gate]]:
    """A page that has read ``It `` of an answer when it lost its connection, and the gate of what more is said."""
    chat, gate = Chat(), Gate()
    chat.source = gate.source
    async with serve(chat.app) as server, network(server.port) as between:
        async with chat_page(project, sdk, f"http://127.0.0.1:{between.port}", "7") as page:
            page.begin("send", "why?")
            gate.say("It ")
            await page.shows("It ")
            between.cut()
            await page.done("send")
            yield page, gate


@pytest.mark.parametrize("sdk", SDKS)
async def test_a_page_that_is_drawn_anew_has_all_of_an_answer_once(project: Path, sdk: str) -> None:
    async with cut_page(project, sdk) as (page, gate):
        assert page.status == "error"
        gate.say("scatters ")
        await page.do("reload")
        page.begin("resume")
        await page.shows("It scatters ")
        gate.say("😀")
        gate.end()
        await page.done("resume")
        assert (page.status, text_of(page.answer), page.answer["id"]) == ("ready", "It scatters 😀", "answer-1")
        assert [message["role"] for message in page.messages] == ["user", "assistant"]


@pytest.mark.parametrize("sdk", SDKS)
async def test_a_page_that_has_half_of_an_answer_has_all_of_it_once(project: Path, sdk: str) -> None:
    async with cut_page(project, sdk) as (page, gate):
        gate.say("scatters 😀")
        page.begin("resume")
        # ai 5.0 goes on with the parts that it has, whatever comes: docs/adapters-ai-sdk.md says what to do.
        await page.shows("It It scatters 😀" if sdk == "ai5" else "It scatters 😀")
        gate.end()
        await page.done("resume")
        assert page.status == "ready"
        assert [message["role"] for message in page.messages] == ["user", "assistant"]


@pytest.mark.parametrize("sdk", SDKS)
async def test_a_page_is_told_that_nothing_runs(project: Path, sdk: str) -> None:
    chat, gate = Chat(), Gate()
    chat.source = gate.source
    gate.say("It ")
    gate.end()
    async with serve(chat.app) as server, chat_page(project, sdk, server.http, "7") as page:
        await page.do("resume")
        assert (page.status, page.messages) == ("ready", [])
        await page.do("send", "why?")
        assert text_of(page.answer) == "It "
        await page.do("resume")
        assert (page.status, text_of(page.answer)) == ("ready", "It ")
        page.begin("read")
        assert (await page.has_read())["read"] is None


@pytest.mark.parametrize("sdk", SDKS)
async def test_a_page_is_told_of_an_answer_that_has_failed(project: Path, sdk: str) -> None:
    chat, gate = Chat(), Gate()
    chat.source = gate.source
    gate.say("It ")
    gate.end(RuntimeError("our secret"))
    async with serve(chat.app) as server, chat_page(project, sdk, server.http, "7") as page:
        await page.do("send", "why?")
        assert (page.status, page.error, text_of(page.answer)) == ("error", "The answer has failed.", "It ")
        assert page.answer["parts"][-1]["state"] == "done"


@pytest.mark.parametrize("sdk", SDKS)
async def test_a_page_is_told_of_an_answer_that_is_lost(project: Path, sdk: str) -> None:
    url = f"memory://{uuid4()}"
    chat, writer, gate = Chat(backplane_url=url), Broker(settings(backplane_url=url, drain_timeout=0)), Gate()
    async with serve(chat.app) as server, chat_page(project, sdk, server.http, "7") as page:
        async with running(writer):
            await writer.streams.start("a", room=ROOM, source=gate.source)
            page.begin("resume")
            gate.say("It ")
            await page.shows("It ")
        await page.done("resume")
        assert (page.status, page.error, text_of(page.answer)) == ("error", "The answer was interrupted.", "It ")


@pytest.mark.parametrize("sdk", SDKS)
async def test_an_answer_that_is_cancelled_is_told_as_an_abort(project: Path, sdk: str) -> None:
    chat, gate = Chat(), Gate()
    chat.source = gate.source
    async with serve(chat.app) as server, chat_page(project, sdk, server.http, "7") as page:
        page.begin("send", "why?")
        gate.say("It ")
        await page.shows("It ")
        await page.read()
        assert await chat.broker.streams.cancel(chat.id)
        read = await page.has_read()
        assert (read["types"][-2:], read["errors"], text_of(read["read"])) == (["text-end", "abort"], [], "It ")
        await page.done("send")
        assert page.status == "ready"


@pytest.mark.parametrize("sdk", SDKS)
async def test_a_page_has_the_parts_of_what_a_model_of_openai_says(project: Path, sdk: str) -> None:
    call = {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    server_of_model = ModelServer(
        delta(reasoning_content="Hmm"), delta(content="Let me see."), delta(tool_calls=[call]), delta("tool_calls")
    )
    chat = Chat()
    async with serve(server_of_model.app) as there, client_of(there) as client, serve(chat.app) as server:
        create = client.chat.completions.create
        chat.source = lambda: openai.ui_message_chunks(create(model="gpt-5", messages=[], stream=True))
        async with chat_page(project, sdk, server.http, "7") as page:
            await page.do("send", "why?")
            assert page.status == "ready"
            start, thought, said, called = page.answer["parts"]
    assert start == {"type": "step-start"}
    assert (thought["type"], thought["text"], thought["state"]) == ("reasoning", "Hmm", "done")
    assert (said["text"], said["state"]) == ("Let me see.", "done")
    assert (called["type"], called["state"]) == ("tool-weather", "input-available")
    assert called["input"] == {"city": "Bern"}


@pytest.mark.parametrize("sdk", SDKS)
async def test_a_page_has_the_parts_of_what_a_graph_says(project: Path, sdk: str) -> None:
    chat, graph = Chat(), agent(Scripted(scripts=[["Let me see.", *CALL], ["It is 21."]]))
    chat.source = lambda: langchain.ui_message_chunks(events(graph, QUESTION))
    async with serve(chat.app) as server, chat_page(project, sdk, server.http, "7") as page:
        await page.do("send", "why?")
        assert page.status == "ready"
        parts = page.answer["parts"]
    kinds = ["step-start", "text", "tool-weather", "data-progress", "step-start", "text"]
    assert [part["type"] for part in parts] == kinds
    assert (parts[2]["state"], parts[2]["input"]) == ("output-available", {"city": "Bern"})
    assert json.loads(parts[2]["output"]) == {"city": "Bern", "degrees": 21}
    assert (parts[1]["text"], parts[5]["text"], parts[5]["state"]) == ("Let me see.", "It is 21.", "done")


@pytest.mark.parametrize("sdk", SDKS)
async def test_a_page_has_the_error_of_a_tool(project: Path, sdk: str) -> None:
    call = piece('{"city": "Nowhere"}', name="weather", id="call_1")
    chat, graph = Chat(), agent(Scripted(scripts=[[call], ["Sorry."]]), handle_tool_errors="No such city.")
    chat.source = lambda: langchain.ui_message_chunks(events(graph, QUESTION))
    async with serve(chat.app) as server, chat_page(project, sdk, server.http, "7") as page:
        await page.do("send", "why?")
        assert (page.status, text_of(page.answer)) == ("ready", "Sorry.")
        (failed,) = [part for part in page.answer["parts"] if part["type"] == "tool-weather"]
    assert (failed["state"], failed["errorText"]) == ("output-error", "The tool has failed.")


# --- from a backend


async def backend(project: Path, *arguments: str) -> bytes:
    """What a backend of Node answers."""
    process = await asyncio.create_subprocess_exec(
        find_node(), "backend.mjs", *arguments, cwd=project, env=node_environment(), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output


async def cut(said: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(said), size):
        yield said[start : start + size]


@pytest.mark.parametrize("sdk", SDKS)
async def test_the_answer_of_a_backend_of_node_is_taken_however_it_is_cut(project: Path, sdk: str) -> None:
    said = await backend(project, sdk)
    for size in (1, 7, len(said)):
        assert [chunk async for chunk in ai_sdk.chunks(cut(said, size))] == [
            {"type": "start", "messageId": "of-the-backend", "messageMetadata": {"model": "ours"}},
            {"type": "text-start", "id": "1"},
            {"type": "text-delta", "id": "1", "delta": "It scatters 😀\u2028\r\n"},
            {"type": "text-end", "id": "1"},
            {"type": "finish"},
        ]


@pytest.mark.parametrize("sdk", SDKS)
async def test_a_backend_that_has_failed_ends_the_stream_as_error(project: Path, sdk: str) -> None:
    said = await backend(project, sdk, "fail")
    broker = Broker(settings())
    told: asyncio.Queue[BaseException] = asyncio.Queue()

    @broker.on_error
    async def failed(error: Exception) -> None:
        told.put_nowait(error)

    async with running(broker), asyncio.timeout(DEADLINE):
        stream = await broker.streams.start("a", room=ROOM, source=ai_sdk.chunks(cut(said, 100)))
        assert await stream.wait() == "error"
        items = (await stream.read()).items or []
        assert items[-1] == {"type": "error", "errorText": "the model has gone"}
        assert isinstance(await told.get(), UpstreamError)


async def test_the_answer_of_a_backend_that_is_cut_off_has_failed(project: Path) -> None:
    said = await backend(project, "ai6")
    with pytest.raises(UpstreamError, match="ask again"):
        _ = [chunk async for chunk in ai_sdk.chunks(cut(said.removesuffix(b"data: [DONE]\n\n"), 100))]


# --- by HTTP


@asynccontextmanager
async def saying(chat: Chat, *said: Any, kind: ServerKind = "ours") -> AsyncIterator[Address]:
    """An application with a stream ``a`` that has said this."""

    async def source() -> AsyncIterator[Any]:
        for each in said:
            yield each

    async with serve(chat.app, kind) as server:
        stream = await chat.broker.streams.start("a", room=ROOM, source=source)
        async with asyncio.timeout(DEADLINE):
            await stream.wait()
        yield server


@pytest.mark.parametrize("kind", SERVER_KINDS)
async def test_a_text_is_one_part_of_a_message(kind: ServerKind) -> None:
    async with saying(Chat(), "It ", "scatters\n\n😀", kind=kind) as server:
        response = await get(server, "/streams/a")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert (response.headers["cache-control"], response.headers["x-ours"]) == ("no-cache", "1")
    assert chunks_in(response.text) == [
        {"type": "start", "messageId": "m-1"},
        {"type": "start-step"},
        {"type": "text-start", "id": "text-1"},
        {"type": "text-delta", "id": "text-1", "delta": "It scatters\n\n😀"},
        {"type": "text-end", "id": "text-1"},
        {"type": "finish-step"},
        {"type": "finish"},
    ]


async def test_a_stream_that_nobody_knows_is_no_content() -> None:
    async with serve(Chat().app) as server:
        response = await get(server, "/streams/nobody")
    assert (response.status_code, response.text) == (204, "")


async def test_a_broker_that_is_not_started_is_an_error_of_the_server() -> None:
    app, broker = FastAPI(), Broker(settings())
    app.get("/")(lambda: ai_sdk.UIMessageStreamResponse(broker, "a"))
    async with serve(app) as server:
        assert (await get(server, "/")).status_code == 500


async def test_a_connection_is_kept_while_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ai_sdk, "KEEP_ALIVE", 0.01)
    monkeypatch.setattr(ai_sdk, "FIRST", 0.01)
    chat, gate = Chat(), Gate()
    async with serve(chat.app) as server:
        await chat.broker.streams.start("a", room=ROOM, source=gate.source)
        async with httpx.AsyncClient(timeout=DEADLINE) as client:
            async with client.stream("GET", f"{server.http}/streams/a") as response:
                lines = response.aiter_lines()
                assert await anext(lines) == 'data: {"type":"start","messageId":"m-1"}'
                assert await anext(lines) == ""
                assert await anext(lines) == ": keep-alive"
                gate.end()
                assert "data: [DONE]" in [line async for line in lines]


@pytest.mark.parametrize("kind", SERVER_KINDS)
async def test_who_goes_changes_nothing_for_the_stream(kind: ServerKind) -> None:
    chat, gate = Chat(), Gate()
    async with serve(chat.app, kind) as server:
        stream = await chat.broker.streams.start("a", room=ROOM, source=gate.source)
        async with httpx.AsyncClient(timeout=DEADLINE) as client:
            async with client.stream("GET", f"{server.http}/streams/a") as response:
                gate.say("It ")
                assert await anext(response.aiter_lines())
        await eventually(lambda: READER not in [task.get_name() for task in asyncio.all_tasks()])
        gate.end()
        async with asyncio.timeout(DEADLINE):
            assert await stream.wait() == "done"


async def test_a_server_that_stops_cuts_the_response_so_that_it_is_taken_for_no_whole_one() -> None:
    chat, gate = Chat(drain_timeout=0), Gate()
    gate.say("It ")
    async with httpx.AsyncClient(timeout=DEADLINE) as client, AsyncExitStack() as server:
        address = await server.enter_async_context(serve(chat.app, timeout_graceful_shutdown=0))
        await chat.broker.streams.start("a", room=ROOM, source=gate.source)
        async with client.stream("GET", f"{address.http}/streams/a") as response:
            lines = response.aiter_lines()
            assert await anext(lines) == 'data: {"type":"start","messageId":"m-1"}'
            await server.aclose()
            with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
                _ = [line async for line in lines]


async def test_an_engine_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ai_sdk, "AGAIN", 0.01)
    chat = Chat()
    async with saying(chat, "It ") as server:
        answers: list[Any] = [BackplaneUnavailable("the engine is away", "unknown")] * 2
        follow = chat.broker.streams._follow

        async def away(stream_id: str, position: int, writer: bytes) -> Any:
            if answers:
                raise answers.pop()
            return await follow(stream_id, position, writer)

        monkeypatch.setattr(chat.broker.streams, "_follow", away)
        response = await get(server, "/streams/a")
    assert chunks_in(response.text)[3] == {"type": "text-delta", "id": "text-1", "delta": "It "}
    assert not answers
