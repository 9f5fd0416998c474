"""Stream feeds: readers of events that share what is read of a stream, on each kind of server."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2 as httpx
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from tests.support import DEADLINE, SERVER_KINDS, Address, ServerKind, eventually, running, serve, settings
from velocity_ws import Broker
from velocity_ws.asgi import stopping, stream_endpoint, stream_feeds
from velocity_ws.asgi.stopping import OpenResponse
from velocity_ws.asgi.stream_events import EventForm, Events
from velocity_ws.asgi.stream_feeds import EventReader, Feed, Feeds
from velocity_ws.asgi.stream_forms import interval_at
from velocity_ws.streams.pieces import Piece
from velocity_ws.streams.tail import Tail

KEY = "a-key-for-writers"


@pytest.fixture(params=SERVER_KINDS)
def kind(request: pytest.FixtureRequest) -> ServerKind:
    """The server a test runs on."""
    value: ServerKind = request.param
    return value


@asynccontextmanager
async def served(kind: ServerKind = "ours") -> AsyncIterator[httpx.AsyncClient]:
    """Requests to a server of streams, with its key."""
    broker = Broker(settings(api_keys=KEY, max_message_size="1MiB"))
    async with running(broker, kind) as address, client(address) as http:
        yield http


def client(address: Address) -> httpx.AsyncClient:
    headers = {"x-api-key": KEY, "content-type": "text/plain"}
    limits = httpx.Limits(max_connections=None)
    url = address.http + "/ws/streams/"
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=DEADLINE, trust_env=False, limits=limits)


async def blocks(response: httpx.Response) -> AsyncIterator[str]:
    """The events and comments of a stream, as they come."""
    rest = b""
    async for chunk in response.aiter_raw():
        *whole, rest = (rest + chunk).split(b"\n\n")
        for block in whole:
            yield block.decode()
    assert not rest


def data_of(block: str) -> str:
    """What an event says of the stream; nothing for another one."""
    name, *lines = block.splitlines()
    return "\n".join(line.removeprefix("data:") for line in lines) if name == "event: data" else ""


async def text_of(response: httpx.Response) -> str:
    """All that a reader is told, until its answer ends."""
    async with asyncio.timeout(3 * DEADLINE):
        return "".join([data_of(block) async for block in blocks(response)])


async def test_readers_share_a_task_and_each_gets_all(kind: ServerKind) -> None:
    async with served(kind) as http, AsyncExitStack() as stack:
        assert (await http.put("s", content="a")).status_code == 201
        responses = [
            await stack.enter_async_context(http.stream("GET", "s", params={"offset": "-1", "live": "sse", **more}))
            for more in ({}, {"cursor": "1"}, {"cursor": "999999999"}) * 5
        ]
        texts = [asyncio.create_task(text_of(response)) for response in responses]
        for text in "bcd":
            assert (await http.post("s", content=text)).status_code == 204
        await eventually(lambda: len(own_tasks("velocity-ws stream feed")) == 1)
        await eventually(lambda: not own_tasks("velocity-ws stream reader"))
        assert (await http.post("s", content="e", headers={"stream-closed": "true"})).status_code == 204
        assert await asyncio.gather(*texts) == ["abcde"] * 15
        await eventually(lambda: not own_tasks("velocity-ws stream feed"))


def own_tasks(name: str) -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == name]


async def test_a_reader_that_does_not_read_keeps_nobody_and_gets_all_in_the_end(kind: ServerKind) -> None:
    async with served(kind) as http, AsyncExitStack() as stack:
        assert (await http.put("s")).status_code == 201
        slow, fast = [
            await stack.enter_async_context(http.stream("GET", "s", params={"offset": "-1", "live": "sse"}))
            for _ in range(2)
        ]
        told = asyncio.create_task(text_of(fast))
        parts = [f"{number:08d}" * 2**16 for number in range(20)]
        for part in parts:  # more than sockets hold
            assert (await http.post("s", content=part)).status_code == 204
        assert (await http.post("s", headers={"stream-closed": "true"})).status_code == 204
        assert await told == "".join(parts)
        assert await text_of(slow) == "".join(parts)


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_reader_that_never_reads_is_let_go(
    kind: ServerKind, is_closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_endpoint, "LIFE", 0.2)
    monkeypatch.setattr(stopping, "PATIENCE", 0.2)
    broker = Broker(settings(api_keys=KEY, max_message_size="1MiB"))
    limits = broker.node.connection_limits
    async with running(broker, kind) as address, client(address) as http:
        assert (await http.put("s")).status_code == 201
        for _ in range(12):  # more than sockets hold
            assert (await http.post("s", content="x" * 2**20)).status_code == 204
        if is_closed:
            assert (await http.post("s", headers={"stream-closed": "true"})).status_code == 204
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            deaf.connect(("127.0.0.1", address.port))
            line = "GET /ws/streams/s?offset=-1&live=sse HTTP/1.1"
            deaf.sendall(f"{line}\r\nhost: {address.http[7:]}\r\nx-api-key: {KEY}\r\n\r\n".encode())
            await eventually(lambda: limits._total)
            await eventually(lambda: not limits._total)
            if kind != "hypercorn":  # where the connection is not seen
                deaf.settimeout(DEADLINE)
                end = await asyncio.to_thread(end_of, deaf)
                assert not end.endswith(b"0\r\n\r\n"), "it was cut"
            await eventually(lambda: not own_tasks("velocity-ws stream feed"))


def end_of(sock: socket.socket) -> bytes:
    """The last that comes of a connection before it is closed."""
    end = b""
    while part := sock.recv(2**20):
        end = (end + part)[-100:]
    return end


async def test_half_a_character_waits_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_feeds, "COMMENT", 0.1)
    async with served() as http:
        assert (await http.put("s", content=b"a\xc3")).status_code == 201
        async with http.stream("GET", "s", params={"offset": "-1", "live": "sse"}) as response:
            found = blocks(response)
            assert data_of(await anext(found)) == "a"
            assert "event: control" in await anext(found)
            assert [await anext(found) for _ in range(3)] == [":"] * 3
            await http.post("s", content=b"\xa9")
            while not (text := data_of(await anext(found))):
                pass
            assert text == "é"


async def test_readers_of_a_stream_that_is_deleted_are_told(kind: ServerKind) -> None:
    async with served(kind) as http:
        assert (await http.put("s", content="a")).status_code == 201
        poll = asyncio.create_task(http.get("s", params={"offset": "now", "live": "long-poll"}))
        async with http.stream("GET", "s", params={"offset": "-1", "live": "sse"}) as response:
            told = asyncio.create_task(text_of(response))
            await eventually(lambda: own_tasks("velocity-ws stream feed"))
            assert (await http.delete("s")).status_code == 204
            assert await told == "a"
            answer = await poll
            assert answer.status_code == 204  # it ends first
            assert answer.headers["stream-closed"] == "true"
            assert (await http.get("s")).status_code == 404


async def test_who_may_read_is_asked_again_after_a_while(kind: ServerKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_endpoint, "LIFE", 0.3)
    monkeypatch.setattr(stream_endpoint, "LONG_POLL", 0.3)
    async with served(kind) as http:
        assert (await http.put("s", content="a")).status_code == 201
        async with http.stream("GET", "s", params={"offset": "-1", "live": "sse"}) as response:
            assert await text_of(response) == "a"
        answer = await http.get("s", params={"offset": "now", "live": "long-poll"})
        assert answer.status_code == 204
        assert answer.headers["stream-up-to-date"] == "true"
        assert json.loads(answer.headers["stream-cursor"]) > 0


async def test_middleware_around_a_request_takes_events_as_they_are_said(kind: ServerKind) -> None:
    """Starlette's sends by a queue with no room, in a task of its own."""

    async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    broker = Broker(settings(api_keys=KEY))
    app = Starlette(middleware=[Middleware(BaseHTTPMiddleware, dispatch=pass_on)])
    broker.attach(app)
    async with serve(app, kind) as address, client(address) as http:
        assert (await http.put("s", content="a")).status_code == 201
        async with http.stream("GET", "s", params={"offset": "-1", "live": "sse"}) as response:
            found = blocks(response)
            for text in "abc":
                while data_of(await anext(found)) != text:
                    pass
                assert (await http.post("s", content=chr(ord(text) + 1))).status_code == 204
        task = asyncio.create_task(read(http, "sse"))
        await eventually(lambda: own_tasks("velocity-ws stream feed"))
        assert (await http.post("s", headers={"stream-closed": "true"})).status_code == 204
        await task
        await eventually(lambda: not own_tasks("velocity-ws stream feed"))


async def read(http: httpx.AsyncClient, live: str) -> None:
    async with http.stream("GET", "s", params={"offset": "now", "live": live}) as response:
        await response.aread()


async def test_a_reader_that_goes_leaves_nothing_behind(kind: ServerKind) -> None:
    async with served(kind) as http:
        assert (await http.put("s", content="x" * 2**20)).status_code == 201
        for live in ("sse", "sse", "long-poll"):
            task = asyncio.create_task(read(http, live))
            await eventually(lambda: own_tasks("velocity-ws stream feed"))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await eventually(lambda: not own_tasks("velocity-ws stream feed"))


# --- without requests


class Taker:
    """Takes what a reader is sent, as long as it may.

    Attributes:
        said: what it has.
        sent: how often it was sent something, taken or not.
        may_take: whether it takes more.
        then: called with all that it has, when it was sent something.
    """

    def __init__(self, cursor: int = 0) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.response = OpenResponse(task, says_nothing)
        self.reader = EventReader(self.send, self.response, 0, cursor)
        self.said = ""
        self.sent = 0
        self.may_take = asyncio.Event()
        self.may_take.set()
        self.then: Callable[[str], object] = lambda said: None

    async def send(self, message: Message) -> None:
        """Send it something."""
        self.sent += 1
        await self.may_take.wait()
        self.said += message["body"].decode()
        self.then(self.said)

    @property
    def cursors(self) -> list[int]:
        """The cursors that it was told."""
        return [int(found) for found in re.findall(r'"streamCursor":"(\d+)"', self.said)]

    @property
    def text(self) -> str:
        """What it was told of the stream."""
        return "".join(map(data_of, self.said.split("\n\n")[:-1]))


async def says_nothing() -> Message:
    """A client that stays and says nothing."""
    return await asyncio.Future()


class Fed:
    """A stream that has an "a", and its feeds."""

    def __init__(self, broker: Broker, http: httpx.AsyncClient, tail: Tail) -> None:
        assert broker.node.streams is not None
        self.http = http
        self.tail = tail
        self.feeds = Feeds(lambda: broker.node.context.workers)
        self._tails = broker.node.streams.tails

    @property
    def feed(self) -> Feed:
        """The feed that readers find now."""
        return self.feeds.of(self._tails, "s", self.tail.writer, EventForm("text/plain", "t"))

    async def say(self, text: str) -> None:
        """Append to the stream."""
        assert (await self.http.post("s", content=text)).status_code == 204


@pytest_asyncio.fixture
async def fed() -> AsyncIterator[Fed]:
    """A stream, and its feeds."""
    broker = Broker(settings(api_keys=KEY))
    async with running(broker, "ours") as address, client(address) as http:
        assert (await http.put("s", content="a")).status_code == 201
        assert broker.node.streams is not None
        yield Fed(broker, http, await broker.node.streams.tails.open("s"))


async def test_the_answer_to_a_reader_that_cannot_be_told_ends_and_the_log_has_why(
    fed: Fed, caplog: pytest.LogCaptureFixture
) -> None:
    one, feed = Taker(), fed.feed

    def fails(_: str) -> None:
        raise ValueError("what nobody expects")

    one.then = fails
    feed.add(one.reader, 1)
    await eventually(lambda: one.response.why == "over")
    assert ["what nobody expects" in caplog.text, len(caplog.records)] == [True, 1]
    caplog.clear()
    feed.remove(one.reader)


async def test_readers_that_cannot_be_told_are_let_go_and_others_are_told_later(
    fed: Fed, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, slow, feed = Taker(), Taker(), fed.feed
    slow.may_take.clear()
    for each in (fast, slow):
        feed.add(each.reader, 1)

    def fails(*_: object, **__: object) -> None:
        raise ValueError("what nobody expects")

    await eventually(lambda: fast.text == "a" and slow.sent)
    with monkeypatch.context() as patch:
        patch.setattr(EventForm, "events", fails)
        await fed.say("b")
        await eventually(lambda: fast.response.why == "over")
    assert ["what nobody expects" in caplog.text, len(caplog.records)] == [True, 1]
    caplog.clear()
    feed.remove(fast.reader)
    slow.may_take.set()
    await eventually(lambda: slow.text == "ab")
    await fed.say("c")
    await eventually(lambda: slow.text == "abc")
    assert (fast.text, slow.response.why) == ("a", "")
    feed.remove(slow.reader)
    await eventually(lambda: not own_tasks("velocity-ws stream feed"))


async def test_an_end_that_comes_while_readers_are_told_is_told_to_all(fed: Fed) -> None:
    takers, feed, tail = [Taker(), Taker()], fed.feed, fed.tail
    for each in takers:
        feed.add(each.reader, 1)
    await eventually(lambda: own_tasks("velocity-ws stream feed"))

    def ends(said: str) -> None:
        if "data:b" in said and not tail.end:
            assert "data:b" in takers[0].said, "it was told before"
            tail.take(Piece(tail.number, tail.length, 0, "", "done", b""))

    takers[1].then = ends
    await fed.say("b")
    for each in takers:
        await eventually(lambda each=each: each.response.why == "over")  # type: ignore[misc]
        assert each.text == "ab"
        assert '"streamClosed":true' in each.said
        feed.remove(each.reader)


async def test_a_feed_that_ends_twice_leaves_that_which_came_after_it(fed: Fed) -> None:
    old, one = fed.feed, Taker()
    assert fed.feed is old
    old.poll_no_more(one.response)
    new = fed.feed
    assert new is not old
    old.poll_no_more(one.response)
    assert fed.feed is new


async def test_readers_of_all_cursors_share_what_is_made_and_no_cursor_goes_back(
    fed: Fed, monkeypatch: pytest.MonkeyPatch
) -> None:
    least = interval_at(time.time())
    takers, feed = [Taker(least + number % 50) for number in range(100)], fed.feed
    for each in takers:
        feed.add(each.reader, 1)
    await eventually(lambda: all(each.text == "a" for each in takers))
    made = 0

    def counted(*args: Any, **how: Any) -> tuple[Events | None, int]:
        nonlocal made
        made += 1
        return events(*args, **how)

    events = EventForm.events
    monkeypatch.setattr(EventForm, "events", counted)
    intervals = [least + 1, least + 30, least + 20]  # the clock is set back
    monkeypatch.setattr(stream_feeds, "interval_at", lambda _: intervals[0])
    for text in ("b", "bc", "bcd"):
        await fed.say(text[-1])
        await eventually(lambda text=text: all(each.text == f"a{text}" for each in takers))  # type: ignore[misc]
        intervals.append(intervals.pop(0))
    assert made == 3
    for number, each in enumerate(takers):
        first = least + number % 50
        later = max(first, least + 30)
        assert each.cursors == [first, max(first, least + 1), later, later]
        feed.remove(each.reader)
