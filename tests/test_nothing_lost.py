"""What docs/nothing-lost.md shows does what the page says of it, and so does the README's page without a client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from tests.support import DEADLINE, Address, Peer, eventually, serve, settings
from tests.support.dead_network import Network, network
from tests.support.pages import blocks, module_of, program_of
from tests.support.site import EXPECTED_ERROR
from velocity_ws import BackplaneUnavailable, Broker, Client, History, HistoryError, WebSocketMiddleware


@pytest.fixture
def page() -> Iterator[Any]:
    with module_of(program_of("nothing-lost.md")) as module:
        yield module


@pytest.fixture
async def server(page: Any) -> AsyncIterator[Address]:
    async with serve(page.app) as address:
        yield address


async def join(peer: Peer, room: str = "chat:7", **data: Any) -> dict[str, Any]:
    answer = await peer.request("join", {"room": room, **data})
    assert answer["event"] == "reply", answer
    found: dict[str, Any] = answer["data"]
    return found


async def test_who_says_where_it_stopped_gets_what_it_missed(server: Address) -> None:
    async with server.connect("/ws?user=bob") as bob:
        await join(bob)
        async with server.connect("/ws?user=ann") as ann:
            await join(ann)
            await bob.send("message", {"text": "hello"}, room="chat:7")
            message = await ann.receive()
            await bob.expect("message")
        assert message == {
            "event": "message", "data": {"by": "bob", "text": "hello"}, "room": "chat:7", "at": message["at"],
        }  # fmt: skip
        for text in ("one", "two", "three"):
            await bob.send("message", {"text": text}, room="chat:7")
            assert (await bob.expect("message"))["text"] == text
        async with server.connect("/ws?user=ann") as ann:
            answer = await join(ann, since=message["at"])
            assert answer == {"room": "chat:7", "at": message["at"], "recovered": True, "missed": 3}
            assert [(await ann.expect("message"))["text"] for _ in range(3)] == ["one", "two", "three"]


async def test_a_document_is_loaded_and_followed_without_a_hole(
    server: Address, page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = page.load
    loaded, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(doc_id: int) -> list[str]:
        lines: list[str] = list(await load(doc_id))
        loaded.set()
        await go_on.wait()
        return lines

    monkeypatch.setattr(page, "load", slowly)
    async with server.connect("/ws?user=ann") as ann, server.connect("/ws?user=bob") as bob:
        await bob.request("append", "before")
        await ann.send("open", 7)
        await loaded.wait()
        await bob.request("append", "meanwhile")
        go_on.set()
        assert await ann.receive() == {"event": "document", "data": ["before"]}
        assert await ann.expect("line") == "meanwhile"
        await bob.request("append", "after")
        assert await ann.expect("line") == "after"


async def test_what_is_sent_again_under_its_name_is_there_once(
    server: Address, page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await page.send_once("chat:7", "message", "paid", "order-1")
    again = await page.send_once("chat:7", "message", "paid", "order-1")
    assert (again.at, again.duplicate, first.duplicate) == (first.at, True, False)
    assert [entry.data for entry in await page.broker.history("chat:7")] == ["paid"]
    with pytest.raises(HistoryError) as caught:
        await page.send_once("chat:7", "message", "not paid", "order-1")
    assert caught.value.reason == "conflict"
    sent: list[str] = []

    class Away:
        def to_room(self, room: str) -> Away:
            return self

        async def send(self, event: str, data: object, dedupe: str) -> None:
            sent.append(dedupe)
            raise BackplaneUnavailable("the engine did not say", outcome="unknown")

    monkeypatch.setattr(page, "broker", Away())
    monkeypatch.setattr(page, "asyncio", SimpleNamespace(sleep=_at_once))
    with pytest.raises(BackplaneUnavailable):
        await page.send_once("chat:7", "message", "paid", "order-2")
    assert sent == ["order-2"] * 5


async def _at_once(_: float) -> None: ...


async def test_a_history_is_read_and_cleared(server: Address, page: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sent = [await page.broker.to_room("chat:7").send("message", number) for number in range(3)]
    await page.read(sent[0].at)
    assert [line.split()[1:] for line in capsys.readouterr().out.splitlines()] == [
        ["message", str(number), each.at] for number, each in enumerate(sent)
    ]
    assert await page.broker.history("chat:7") == []


@asynccontextmanager
async def connected(browser: Browser, between: Network, *words: str) -> AsyncIterator[Page]:
    """A page that has run the blocks of JavaScript in which these words are, as ann; what they show is in `shown`."""
    found = [block.source for block in blocks("docs/nothing-lost.md", "js")]
    scripts = [next(source for source in found if word in source) for word in words]
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"http://127.0.0.1:{between.port}/openapi.json")
    await page.evaluate(
        """async (scripts) => {
            const { connect } = await import("/ws/velocity.js");
            window.shown = [];
            const ws = connect("/ws?user=ann", { baseDelay: 1, maxDelay: 10 });
            const AsyncFunction = (async () => {}).constructor;
            for (const script of scripts) {
                await new AsyncFunction("ws", "show", script)(ws, (...what) => shown.push(what.join(" ")));
            }
        }""",
        scripts,
    )
    yield page
    await context.close()


async def away(between: Network, broker: Broker, meanwhile: Callable[[], Awaitable[object]]) -> None:
    """Cut a page off until something was done."""
    between.die()
    await between.close()
    await eventually(lambda: not broker.get_clients())
    await meanwhile()
    between.live()
    await between.close()  # an attempt that was made meanwhile leads nowhere


@pytest.mark.timeout(300)  # leaves room for the installation of a browser
@pytest.mark.asyncio(loop_scope="session")
async def test_a_page_is_told_how_much_was_said_while_it_was_away(browser: Browser, page: Any) -> None:
    async with serve(page.app) as server, network(server.port) as between:
        async with connected(browser, between, "while you were away") as tab:

            async def say() -> None:
                for text in ("one", "two"):
                    await page.broker.to_room("chat:7").send("message", {"by": "bob", "text": text})

            await away(between, page.broker, say)
            await tab.wait_for_function("() => shown.length === 3", timeout=1000 * DEADLINE)
            assert await tab.evaluate("shown") == [
                "2 new in chat:7 while you were away", "chat:7 bob one", "chat:7 bob two",
            ]  # fmt: skip

            async def say_and_clear() -> None:
                await say()
                await page.broker.clear_history("chat:7")

            await away(between, page.broker, say_and_clear)
            await tab.wait_for_function("() => shown.length === 4", timeout=1000 * DEADLINE)
            assert (await tab.evaluate("shown"))[-1] == "load chat:7 anew: evicted"


@pytest.mark.timeout(300)  # leaves room for the installation of a browser
@pytest.mark.asyncio(loop_scope="session")
async def test_the_page_of_the_readme_recovers_by_itself(browser: Browser) -> None:
    """It is cut off twice: what it missed comes, then more than is kept is missed, and it is told to load."""
    (script,) = [block.source for block in blocks("README.md", "js") if "function enter" in block.source]
    html = f"""<!doctype html><title>bare</title><link rel=icon href="data:,"><script type="module">
        window.shown = [];
        window.loaded = [];
        const show = (data) => shown.push(data);
        const load = (why) => loaded.push(why ?? "first");
        {script}
        enter("chat:7");
        </script>"""
    broker = Broker(settings())
    gate = asyncio.Event()
    gate.set()

    @broker.authenticate
    async def wait_for_the_gate() -> None:
        await gate.wait()

    kind = broker.rooms("chat:{chat_id}", history=History(size=5))

    @kind.authorize
    async def anybody(client: Client) -> bool:
        return True

    async def say(*texts: str) -> None:
        for text in texts:
            await broker.to_room("chat:7").send("message", text)

    async def page_of(_: object) -> HTMLResponse:
        return HTMLResponse(html)

    app = WebSocketMiddleware(Starlette(routes=[Route("/", page_of)]), broker)
    async with serve(app) as server, network(server.port) as between:
        context = await browser.new_context()
        page = await context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(error.message))

        def heard(message: ConsoleMessage) -> None:
            if not EXPECTED_ERROR.search(message.text):
                problems.append(message.text)

        page.on("console", heard)

        async def away(*texts: str) -> None:
            gate.clear()
            await between.close()
            await eventually(lambda: not broker.get_clients())
            await say(*texts)
            gate.set()

        async def shows(count: int) -> list[str]:
            await page.wait_for_function("(count) => shown.length === count", arg=count, timeout=1000 * DEADLINE)
            shown: list[str] = await page.evaluate("shown")
            return shown

        await page.goto(f"http://127.0.0.1:{between.port}/")
        await page.wait_for_function("() => loaded.length === 1", timeout=1000 * DEADLINE)
        await say("hello")
        assert await shows(1) == ["hello"]
        await away("one", "two", "three")
        await shows(4)
        await say("four")
        assert await shows(5) == ["hello", "one", "two", "three", "four"]
        assert await page.evaluate("loaded") == ["first"]
        await away(*"abcdef")
        await page.wait_for_function("() => loaded.length === 2", timeout=1000 * DEADLINE)
        await say("new")
        assert (await shows(6))[-1] == "new"
        assert await page.evaluate("loaded") == ["first", "evicted"]
        assert problems == []
        await context.close()
