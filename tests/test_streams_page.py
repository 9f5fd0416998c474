"""What docs/streams.md shows does what the page says of it, and so does what the README shows of streams."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from tests.support import DEADLINE, Address, Peer, eventually, running, serve, settings
from tests.support.dead_network import Network, network
from tests.support.pages import blocks, module_of, program_of, run
from tests.support.streaming import ROOM, Gate, Reading, join, read
from tests.support.yours import Question
from velocity_ws import Broker, Emitter

_names = itertools.count()


@pytest.fixture
def url() -> str:
    """Of an engine within the process, so that others can be on it."""
    return f"memory://page-{next(_names)}"


@pytest.fixture
def page(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("WS_BACKPLANE_URL", url)
    with module_of(program_of("streams.md")) as module:
        yield module


@pytest.fixture
async def server(page: Any) -> AsyncIterator[Address]:
    async with serve(page.app) as address:
        yield address


@pytest.fixture
def gate(page: Any, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """What the model says, when a test says so."""
    gate = Gate()
    monkeypatch.setattr(page, "generate", lambda prompt: gate.source())
    return gate


async def ask(peer: Peer, id_: str, text: str) -> None:
    await join(peer)
    await peer.send("ask", {"id": id_, "text": text}, id=7, room=ROOM)


async def test_an_answer_is_read_by_who_asked_and_by_who_comes_late(server: Address) -> None:
    async with server.connect("/ws?user=ann") as ann, server.connect("/ws?user=bob") as bob:
        await ask(ann, "a", "why is the sky blue?")
        reading = Reading("a")
        while reading.end is None:
            message = await ann.receive()
            if message["event"] == "reply":
                assert message["data"] is None
            else:
                reading.take(message)
        assert (reading.text, reading.end) == ("why is the sky blue? ", "done")
        await ask(ann, "a", "why is the sky blue?")  # once more
        await join(bob)
        assert (await read(bob, "a")).text == reading.text
    async with server.connect() as nobody:
        assert (await nobody.request("join", {"room": ROOM}))["data"]["code"] == "FORBIDDEN"


async def test_a_member_stops_an_answer(server: Address, page: Any, gate: Gate) -> None:
    async with server.connect("/ws?user=ann") as ann:
        await ask(ann, "a", "why?")
        await eventually(gate.began.is_set)
        await ann.send("stream_cancel", {"id": "a"}, id=8, room=ROOM)
        await gate.cancelled()
    assert await page.broker.streams.wait("a") == "cancelled"


async def test_an_export_says_how_far_it_is(server: Address, page: Any) -> None:
    await page.export(9)
    state = await page.broker.streams.read("export-9")
    assert (state.room, state.items, state.end) == (
        "job:9",
        [{"exporting": "orders"}, {"exporting": "customers"}],
        "done",
    )


async def test_an_answer_is_stored_when_it_is_done(
    server: Address, page: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    await page.store("a")
    assert capsys.readouterr().out == "why? \n"


async def test_an_answer_is_written_by_a_process_of_its_own(
    server: Address, page: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "emitter", Emitter(url, timeout=DEADLINE))
    async with server.connect("/ws?user=ann") as ann:
        await join(ann)
        await asyncio.to_thread(page.answer, page.Question(id="a", text="It scatters"), ROOM)
        assert (await read(ann, "a")).text == "It scatters "
    await asyncio.to_thread(page.emitter.close)


async def test_the_lines_of_the_readme_start_and_read_a_stream() -> None:
    broker = Broker(settings())
    said: list[str] = []

    async def model(prompt: str) -> AsyncIterator[str]:
        said.append(prompt)
        yield "It scatters."

    chats = broker.rooms("chat:{chat_id}")
    chats.authorize(lambda: True)
    (source,) = [block.source for block in blocks("README.md", "python") if "streams.start" in block.source]
    run(source, {"broker": broker, "chats": chats, "model": model, "Question": Question})
    async with running(broker, "ours") as address, address.connect() as peer:
        await ask(peer, "a", "why?")
        while (message := await peer.receive())["event"] != "stream":
            assert message == {"event": "reply", "id": 7, "data": None}
        assert message["data"]["text"] == "It scatters."
    assert said == ["why?"]


# --- in the browser


@asynccontextmanager
async def shown(browser: Browser, between: Network, script: str) -> AsyncIterator[Page]:
    """A page that runs a script; what that shows is in `shown`."""
    context = await browser.new_context()
    tab = await context.new_page()
    await tab.goto(f"http://127.0.0.1:{between.port}/openapi.json")
    await tab.evaluate(
        """async (script) => {
            const { connect } = await import("/ws/velocity.js");
            window.shown = [];
            const ws = connect("/ws?user=ann", { baseDelay: 1, maxDelay: 10 });
            const AsyncFunction = (async () => {}).constructor;
            window.ended = new AsyncFunction("ws", "show", script)(ws, (...what) => shown.push(what));
        }""",
        script,
    )
    yield tab
    await context.close()


async def has(tab: Page, text: str) -> None:
    """Wait until what was shown is a text."""
    await tab.wait_for_function(
        "(text) => shown.map((each) => each[0]).join('') === text", arg=text, timeout=1000 * DEADLINE
    )


@pytest.mark.timeout(300)  # leaves room for the installation of a browser
@pytest.mark.asyncio(loop_scope="session")
async def test_a_page_has_all_of_an_answer_over_a_lost_connection(browser: Browser, page: Any, gate: Gate) -> None:
    (script,) = [block.source for block in blocks("docs/streams.md", "js") if "ws.stream" in block.source]
    async with serve(page.app) as server, network(server.port) as between:
        async with shown(browser, between, script) as tab:
            await gate.began.wait()
            gate.say("It ")
            await has(tab, "It ")
            await between.close()
            gate.say("scatters 😀")
            gate.end()
            await has(tab, "It scatters 😀")
            await tab.evaluate("ended")


@pytest.mark.timeout(300)  # leaves room for the installation of a browser
@pytest.mark.asyncio(loop_scope="session")
async def test_a_page_without_a_client_has_all_of_it_too(browser: Browser, page: Any, gate: Gate) -> None:
    (script,) = [block.source for block in blocks("docs/streams.md", "js") if "function follow" in block.source]
    script = script.replace('"/ws"', '"/ws?user=ann"').replace("1000", "10")
    async with serve(page.app) as server, network(server.port) as between:
        await page.broker.streams.start("a", room=ROOM, source=gate.source())
        gate.say("It 😀")
        async with shown(browser, between, f'{script}\nfollow("{ROOM}");') as tab:
            await tab.wait_for_function("() => shown.length === 1", timeout=1000 * DEADLINE)
            assert await tab.evaluate("shown[0]") == ["a", "It 😀", None]
            await between.close()
            gate.say(" scatters")
            gate.end()
            await tab.wait_for_function("() => shown.at(-1)[2] === 'done'", timeout=1000 * DEADLINE)
            assert (await tab.evaluate("shown.at(-1)"))[1] == "It 😀 scatters"
