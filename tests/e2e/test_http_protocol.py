"""`HTTPProtocol`: what a connection may cost until it is a WebSocket, on both of uvicorn's parsers and both loops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, ClassVar

import pytest
import uvloop
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState
from websockets.exceptions import InvalidStatus

from tests.support import DEADLINE, Address, eventually, running, serve, settings
from velocity_ws import Broker
from velocity_ws.uvicorn import HTTPProtocol, state
from velocity_ws.uvicorn.http import H11Protocol
from velocity_ws.uvicorn.http_guard import HTTPGuard
from velocity_ws.uvicorn.http_tools import HttpToolsProtocol
from velocity_ws.uvicorn.state import refuse_handshakes

pytestmark = pytest.mark.usefixtures("unhurried")  # what a busy machine does is no fault of who has little time here

TIMEOUT = 0.4
"""WS_HANDSHAKE_TIMEOUT of the servers at which a connection is to be late, in seconds."""
HURRIED = {"handshake_timeout": TIMEOUT}
HANDSHAKE = (
    b"GET /ws?token=secret HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"


class App:
    """Answers HTTP with what it was asked, and echoes WebSocket messages."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, int]] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(receive, send)
        else:
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            size += len(event["body"])
            more = event["more_body"]
        self.requests.append((scope["path"], size))
        await self.hold.wait()
        body = json.dumps([scope["path"], size]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def _websocket(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})


class Raw:
    """A connection that says what it is told to, valid or not."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def say(self, *parts: bytes) -> None:
        """Send, each part in a segment of its own."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            if len(parts) > 1:
                await asyncio.sleep(0.01)  # so that the parts are not read at once; nothing is waited for

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next response: status, headers, body."""
        async with asyncio.timeout(DEADLINE):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return int(head[0].split()[1]), headers, body

    async def status(self) -> int:
        """The next response's status."""
        return (await self.answer())[0]

    async def frame(self) -> bytes:
        """The payload of a short frame."""
        async with asyncio.timeout(DEADLINE):
            head = await self._reader.readexactly(2)
            return await self._reader.readexactly(head[1])

    async def rest(self) -> bytes:
        """What comes until the server closes."""
        async with asyncio.timeout(DEADLINE):
            with contextlib.suppress(ConnectionError):
                return await self._reader.read()
        return b""


class RunningServer:
    """A running server with its application, and how to look inside."""

    def __init__(self, address: Address, app: App, state: ServerState) -> None:
        self.address = address
        self.app = app
        self.state = state

    @contextlib.asynccontextmanager
    async def raw(self) -> AsyncIterator[Raw]:
        """A raw connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.address.port)
        try:
            yield Raw(reader, writer)
        finally:
            writer.transport.abort()

    async def until_nobody_is_left(self) -> None:
        """Wait until the server has no connection."""
        await eventually(lambda: not self.state.connections)
        common = vars(self.state)["velocity_ws_http"]
        assert not len(common.heads)
        assert not len(common.flushing)
        assert not common.websockets


@contextlib.asynccontextmanager
async def site(
    base: type[HTTPGuard], own: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[RunningServer]:
    """A server with the guard on that base, and these settings."""
    states: list[ServerState] = []

    class Observed(base.configured(settings(**(own or {})))):  # type: ignore[misc]
        def __init__(self, config: Any, server_state: ServerState, *args: Any, **more: Any) -> None:
            states.append(server_state)
            super().__init__(config, server_state, *args, **more)

    app = App()
    async with serve(app, options.pop("kind", "ours"), http=Observed, **options) as address:
        async with asyncio.timeout(DEADLINE):
            (await asyncio.open_connection("127.0.0.1", address.port))[1].close()
        await eventually(lambda: states and not states[0].connections)
        yield RunningServer(address, app, states[0])


@pytest.fixture(params=[HttpToolsProtocol, H11Protocol], ids=["httptools", "h11"])
def base(request: pytest.FixtureRequest) -> type[HTTPGuard]:
    """The class under test."""
    value: type[HTTPGuard] = request.param
    return value


@pytest.fixture(autouse=True)
def _nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Strangers cause no line at INFO or above, but for bounded ones about limits that are settings; nothing else
    happens in these tests but for the server's own words."""
    caplog.set_level(logging.DEBUG)
    yield
    for record in caplog.get_records("call"):
        text = record.getMessage()
        assert "secret" not in text or record.name == "uvicorn.error"  # uvicorn's own line, cleaned by `Server`
        own = record.name == "uvicorn.error" and record.levelno == logging.INFO
        access = record.name == "uvicorn.access"
        limit = record.name == "velocity_ws.uvicorn" and re.search("over WS_MAX_HEADER_|WS_MAX_CONNECTIONS .* is", text)
        assert record.levelno < logging.INFO or own or access or limit, text


# --- time


async def test_a_connection_that_says_nothing_is_closed(base: type[HTTPGuard]) -> None:
    loop = asyncio.get_running_loop()
    async with site(base, HURRIED) as server:
        async with contextlib.AsyncExitStack() as stack:
            began = loop.time()
            silent = [await stack.enter_async_context(server.raw()) for _ in range(200)]
            connected = loop.time()
            async with server.address.connect() as peer:
                await peer.ws.send("hello")
                assert await peer.ws.recv() == "hello"
                assert await silent[0].rest() == b""
                assert loop.time() - began >= TIMEOUT * 0.9
                for raw in silent:
                    assert await raw.rest() == b""
                assert loop.time() - connected < TIMEOUT + 2
                await asyncio.sleep(TIMEOUT)  # the deadline is over for a WebSocket that has been opened
                await peer.ws.send("still here")
                assert await peer.ws.recv() == "still here"
        await server.until_nobody_is_left()


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\nX: ", b"G"])
async def test_headers_that_trickle_in_are_cut_off(base: type[HTTPGuard], first: bytes) -> None:
    loop = asyncio.get_running_loop()
    async with site(base, HURRIED) as server, server.raw() as raw:
        began = loop.time()

        async def trickle() -> None:
            await raw.say(first)
            while True:
                await raw.say(b"E" if first == b"G" else b"x")
                await asyncio.sleep(0.02)

        talking = asyncio.create_task(trickle())
        # With "GEEEE" a parser may see at once that it is no method.
        assert await raw.status() in ((408,) if len(first) > 1 else (400, 408))
        assert loop.time() - began < TIMEOUT + 1
        await raw.rest()
        talking.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await talking
        await server.until_nobody_is_left()


async def test_a_late_peer_that_never_reads_is_cut(base: type[HTTPGuard]) -> None:
    loop = asyncio.get_running_loop()
    async with site(base, HURRIED) as server, server.raw() as raw:
        await raw.say(b"GET / HTTP/1.1\r\n")
        await eventually(lambda: server.state.connections)
        began = loop.time()
        await server.until_nobody_is_left()  # though this side closes nothing and reads nothing
        assert loop.time() - began < TIMEOUT + state.FLUSH + 1


async def test_each_request_of_a_connection_has_the_time(base: type[HTTPGuard]) -> None:
    loop = asyncio.get_running_loop()
    async with site(base, HURRIED, timeout_keep_alive=5) as server, server.raw() as raw:
        for number in range(3):
            await raw.say(GET % number)
            assert await raw.status() == 200
            await asyncio.sleep(TIMEOUT / 2)  # idle: together longer than the deadline
        began = loop.time()
        await raw.say(b"GET /late HTTP/1.1\r\nHo")
        assert await raw.status() == 408
        assert TIMEOUT * 0.9 <= loop.time() - began < TIMEOUT + 1
        assert await raw.rest() == b""
        await server.until_nobody_is_left()
        assert server.app.requests == [("/0", 0), ("/1", 0), ("/2", 0)]


async def test_empty_lines_keep_no_connection(base: type[HTTPGuard]) -> None:
    async with site(base, HURRIED, timeout_keep_alive=5) as server, server.raw() as raw:
        await raw.say(GET % 1)
        assert await raw.status() == 200
        await raw.say(b"\r\n")
        assert await raw.status() in (400, 408)
        await server.until_nobody_is_left()


async def test_a_slow_answer_is_not_cut(base: type[HTTPGuard]) -> None:
    async with site(base, HURRIED) as server, server.raw() as raw:
        server.app.hold.clear()
        await raw.say(GET % 1)
        await asyncio.sleep(TIMEOUT * 1.5)
        server.app.hold.set()
        assert await raw.status() == 200


async def test_a_late_second_request_waits_for_the_answer_to_the_first(base: type[HTTPGuard]) -> None:
    async with site(base, HURRIED, timeout_keep_alive=30) as server, server.raw() as raw:
        server.app.hold.clear()
        await raw.say(GET % 1 + b"GET /2 HTTP/1.1\r\nHo")
        await asyncio.sleep(TIMEOUT * 1.5)
        server.app.hold.set()
        status, _, body = await raw.answer()
        assert (status, json.loads(body)) == (200, ["/1", 0])
        await raw.rest()
        await server.until_nobody_is_left()


async def test_what_waits_for_us_is_not_late(base: type[HTTPGuard]) -> None:
    async with site(base, HURRIED) as server, server.raw() as raw:
        server.app.hold.clear()
        await raw.say(GET % 1)
        await eventually(lambda: server.app.requests)  # from here on it is not read any more
        await raw.say(GET % 2 + b"GET /3 HTTP/1.1\r\nHo", b"st: x\r\n\r\n")
        await asyncio.sleep(TIMEOUT * 2.5)
        server.app.hold.set()
        for number in (1, 2, 3):
            status, _, body = await raw.answer()
            assert (status, json.loads(body)) == (200, [f"/{number}", 0])


# --- size


async def test_the_number_of_headers(base: type[HTTPGuard]) -> None:
    async with site(base) as server:
        for count, expected in [(99, 200), (100, 431), (200, 431)]:
            async with server.raw() as raw:
                await raw.say(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"x-a: 1\r\n" * count + b"\r\n")
                status, headers, _ = await raw.answer()
                assert status == expected
                if status == 431:
                    assert headers["connection"] == "close"
                    assert await raw.rest() == b""
                    await server.until_nobody_is_left()
        assert len(server.app.requests) == 1


def large(shape: str, size: int) -> bytes:
    """A request with at least that many bytes of headers, and not much more."""
    if shape == "one header":
        return b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * size + b"\r\n\r\n"
    if shape == "many headers":
        return b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"X: " + b"x" * (size // 80 - 5) + b"\r\n") * 80 + b"\r\n"
    if shape == "path":
        return b"GET /" + b"x" * size + b" HTTP/1.1\r\nHost: x\r\n\r\n"
    line = b"X: " + b"x" * 4000 + b"\r\n"
    return HANDSHAKE[:-2] + line * -(-size // len(line)) + b"\r\n"


async def test_the_limits_of_headers_are_settings_and_named_when_they_refuse(
    base: type[HTTPGuard], caplog: pytest.LogCaptureFixture
) -> None:
    own = {"max_header_size": 64 * 1024, "max_header_count": 300}
    async with site(base, own) as server:
        for headers, expected in [
            (b"x-a: 1\r\n" * 290, 101),
            (b"x-a: " + b"1" * 60_000 + b"\r\n", 101),
            (b"x-a: 1\r\n" * 310, "WS_MAX_HEADER_COUNT"),
            (b"x-a: " + b"1" * 70_000 + b"\r\n", "WS_MAX_HEADER_SIZE"),
        ]:
            caplog.clear()
            async with server.raw() as raw:
                await raw.say(HANDSHAKE[:-2] + headers + b"\r\n")
                assert await raw.status() == (101 if expected == 101 else 431)
            said = [record for record in caplog.records if record.name == "velocity_ws.uvicorn"]
            warnings = [record.getMessage() for record in said if record.levelno == logging.WARNING]
            assert len(warnings) == (expected != 101)
            for text in warnings:
                assert str(expected) in text
                assert "'127.0.0.1'" in text


async def test_what_is_refused_before_the_application_is_counted(base: type[HTTPGuard]) -> None:
    """As under the ``uvicorn`` command, where the HTTP class knows no broker."""
    limits = settings(max_connections=1, handshake_timeout=TIMEOUT)
    broker, other = Broker(settings()), Broker(settings())
    async with running(broker, "ours", http=base.configured(limits)) as address:
        async with address.connect() as peer:
            for request, expected in [
                (HANDSHAKE, 503),
                (HANDSHAKE[:-2] + b"x-a: 1\r\n" * 100 + b"\r\n", 431),
                (HANDSHAKE[:-2] + b"x-a: " + b"1" * 20_000 + b"\r\n\r\n", 431),
                (HANDSHAKE[:-30], 408),
                (b"nonsense\r\n\r\n", 400),
            ]:
                reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
                writer.write(request)
                assert await Raw(reader, writer).status() == expected
                writer.close()
            await peer.ws.send("{}")
            assert (await peer.receive())["event"] == "error"
            assert broker.get_stats().rejected == 5
        await eventually(lambda: not broker.get_clients())
        reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        writer.write(HANDSHAKE.replace(b"Version: 13", b"Version: 12"))  # which the WebSocket class refuses
        assert await Raw(reader, writer).status() == 400
        writer.close()
        assert (broker.get_stats().rejected, broker.get_stats().connections) == (6, 1)
    assert other.get_stats().rejected == 6  # as it is not known for whom they came
    assert Broker(settings()).get_stats().rejected == 0


@pytest.mark.parametrize("shape", ["one header", "many headers", "path", "websocket"])
async def test_the_size_of_headers(base: type[HTTPGuard], shape: str) -> None:
    async with site(base, {"handshake_timeout": DEADLINE}) as server:  # which is not to be what ends any
        for size, segments, fits in [(15, 1, True), (15, 7, True), (17, 1, False), (20, 7, False), (200, 1, False)]:
            request = large(shape, (size - (shape == "websocket" and fits) * 3) * 1024)
            step = len(request) // segments + 1
            async with server.raw() as raw:
                await raw.say(*(request[at : at + step] for at in range(0, len(request), step)))
                status, headers, _ = await raw.answer()
                assert status == ((101 if shape == "websocket" else 200) if fits else 431), size
                if not fits:
                    assert headers["connection"] == "close"
                    assert await raw.rest() == b""
            await server.until_nobody_is_left()
        assert len(server.app.requests) == (0 if shape == "websocket" else 2)


async def test_large_headers_behind_another_request(base: type[HTTPGuard]) -> None:
    async with site(base, timeout_keep_alive=30) as server, server.raw() as raw:
        await raw.say(GET % 1 + b"GET /2 HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n" + GET % 3)
        assert await raw.status() == 200
        await raw.rest()
        await server.until_nobody_is_left()
        assert server.app.requests == [("/1", 0)]


CHUNKED = b"POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
FLOODS = {
    "one header": (b"GET / HTTP/1.1\r\nX: ", b"x" * 65536),
    "a header's name": (b"GET / HTTP/1.1\r\nX", b"x" * 65536),
    "many headers": (b"GET / HTTP/1.1\r\n", b"a:b\r\n" * 13000),
    "path": (b"GET /", b"x" * 65536),
    "empty lines": (b"\r\n", b"\r\n" * 32768),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"a:b\r\n" * 13000),
    "one trailer": (CHUNKED + b"1\r\nx\r\n0\r\nX: ", b"x" * 65536),
    "a chunk's extension": (CHUNKED + b"1;", b"x" * 65536),
}


@contextlib.contextmanager
def little_memory(what: str) -> Iterator[None]:
    """At most 2 MiB of Python's memory are taken meanwhile, both sides of the connection together."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * 2**20, f"{what}: {peak / 2**20:.1f} MiB"


async def test_a_flood_takes_no_memory(base: type[HTTPGuard], monkeypatch: pytest.MonkeyPatch) -> None:
    """50 MiB are sent, or as much as the server takes before it closes, which is at once."""
    monkeypatch.setattr(state, "FLUSH", 60.0)
    async with site(base, {"handshake_timeout": 30}) as server:
        for flood, (first, again) in FLOODS.items():
            async with server.raw() as raw:
                with little_memory(flood):
                    with contextlib.suppress(ConnectionError):
                        async with asyncio.timeout(DEADLINE):
                            await raw.say(first)
                            for _ in range(50 * 2**20 // len(again)):
                                await raw.say(again)
                await server.until_nobody_is_left()


async def test_a_flood_of_requests_takes_no_memory(base: type[HTTPGuard]) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    async with site(base, access_log=False) as server, server.raw() as raw:
        server.app.hold.clear()

        async def pour() -> None:
            while True:
                await raw.say(request * 2000)

        with little_memory("requests"):
            pouring = asyncio.create_task(pour())
            await asyncio.wait([pouring], timeout=0.5)  # while the first is being answered
        assert not pouring.done()  # the server has stopped reading
        server.app.hold.set()
        for _ in range(50):
            assert await raw.status() == 200
        pouring.cancel()
        await asyncio.wait([pouring])


# --- what must go on to work


async def test_requests_one_behind_the_other(base: type[HTTPGuard]) -> None:
    chunks = b"5\r\nhello\r\n" * 8000
    requests = [
        GET % 0,
        b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60000,
        GET % 2,
        CHUNKED.replace(b"/1 ", b"/3 ") + chunks + b"0\r\nX-Trailer: yes\r\n\r\n",
        b"GET /4 HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 12000 + b"\r\n\r\n",
        b"POST /5 HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n" + b"x" * 2**20,
        GET % 6,
    ]
    stream = b"".join(requests)
    async with site(base, {"handshake_timeout": 10}) as server:
        for segments in (1, 2, 13):
            step = len(stream) // segments + 1
            async with server.raw() as raw:
                talking = asyncio.create_task(raw.say(*(stream[at : at + step] for at in range(0, len(stream), step))))
                for number, size in enumerate([0, 60000, 0, 40000, 0, 2**20, 0]):
                    status, _, body = await raw.answer()
                    assert (status, json.loads(body)) == (200, [f"/{number}", size])
                await talking


async def test_cut_anywhere(base: type[HTTPGuard]) -> None:
    stream = GET % 0 + b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" + GET % 2
    async with site(base, {"handshake_timeout": 10}, access_log=False) as server:
        for at in range(1, len(stream), 3):
            async with server.raw() as raw:
                await raw.say(stream[:at], stream[at:])
                for number, size in enumerate([0, 5, 0]):
                    status, _, body = await raw.answer()
                    assert (status, json.loads(body)) == (200, [f"/{number}", size]), at


async def test_what_is_no_http_is_refused(base: type[HTTPGuard]) -> None:
    async with site(base) as server:
        for nonsense in [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            b"GET\r\n\r\n",
            b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
            CHUNKED + b"zz\r\n",
        ]:
            async with server.raw() as raw:
                await raw.say(nonsense)
                assert b" 200 " not in await raw.rest(), nonsense
        await server.until_nobody_is_left()


async def test_a_broken_body_while_it_is_read(base: type[HTTPGuard]) -> None:
    async with site(base) as server, server.raw() as raw:
        await raw.say(CHUNKED + b"5\r\nhello\r\n", b"zz\r\n")
        assert await raw.status() == 400
        await server.until_nobody_is_left()
        assert not server.app.requests


async def test_a_broken_body_behind_an_answer_that_has_begun(base: type[HTTPGuard]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        while (await receive())["type"] != "http.disconnect":
            pass

    async with serve(app, "ours", http=base.configured(settings()), lifespan="off") as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        raw = Raw(reader, writer)
        await raw.say(CHUNKED)
        async with asyncio.timeout(DEADLINE):
            await reader.readuntil(b"\r\n\r\n")
        await raw.say(b"zz\r\n")
        assert await raw.rest() == b""  # no second response inside the first
        writer.close()


async def test_a_body_is_never_a_request(base: type[HTTPGuard]) -> None:
    inner = GET % 9
    head = b"POST /1 HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: %d\r\n\r\n"
    async with site(base, timeout_keep_alive=1) as server, server.raw() as raw:
        server.app.hold.clear()
        await raw.say(head % len(inner), inner)
        await eventually(lambda: server.app.requests)
        asyncio.get_running_loop().call_later(0.05, server.app.hold.set)
        assert await raw.status() == 200
        await raw.say(GET % 2)
        assert await raw.status() == 200
        assert server.app.requests == [("/1", len(inner)), ("/2", 0)]


H2C = b" HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAA\r\n"
WISHES = [  # of requests, and the size of each one's body
    (b"POST /0" + H2C + b"Content-Length: 5\r\n\r\nhello", 5),
    (b"PUT /1" + H2C + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n", 8),
    (b"GET /2" + H2C + b"\r\n", 0),
    (b"POST /3" + H2C.replace(b"h2c", b"TLS/1.2") + b"Content-Length: 100000\r\n\r\n" + b"x" * 100000, 100000),
    (b"POST /4" + H2C + b"Content-Length: 0\r\n\r\n", 0),
    (b"OPTIONS /5" + H2C + b"\r\n", 0),
    (GET % 6, 0),
]


async def test_a_request_that_asks_for_another_protocol_keeps_its_body(base: type[HTTPGuard]) -> None:
    """As Java's HTTP client sends it, first on each connection."""
    stream = b"".join(request for request, _ in WISHES)
    async with site(base, {"handshake_timeout": 10}) as server:
        for step in (len(stream), 40000, 97):
            async with server.raw() as raw:
                parts = [stream[at : at + step] for at in range(0, min(len(stream), 970), step)]
                talking = asyncio.create_task(raw.say(*parts, stream[sum(map(len, parts)) :]))
                for number, (_, size) in enumerate(WISHES):
                    status, _, body = await raw.answer()
                    assert (status, json.loads(body)) == (200, [f"/{number}", size]), step
                await talking


async def test_without_a_websocket_class_a_handshake_is_a_request(base: type[HTTPGuard]) -> None:
    async with site(base, kind="none") as server, server.raw() as raw:
        await raw.say(HANDSHAKE.replace(b"?token=secret", b"") + GET % 1)
        status, _, body = await raw.answer()
        assert (status, json.loads(body)) == (200, ["/ws", 0])
        assert await raw.status() == 200


# --- the upgrade


@pytest.mark.parametrize("kind", ["ours", "websockets-sansio"])
async def test_bytes_behind_the_handshake(base: type[HTTPGuard], kind: str) -> None:
    frame = b"\x81\x85\0\0\0\0hello"
    async with site(base, kind=kind) as server, server.raw() as raw:
        await raw.say(HANDSHAKE + frame + frame)
        assert await raw.status() == 101
        assert await raw.frame() == b"hello"
        assert await raw.frame() == b"hello"


async def test_a_handshake_behind_a_request_that_was_answered(base: type[HTTPGuard]) -> None:
    async with site(base) as server, server.raw() as raw:
        await raw.say(GET % 1)
        assert await raw.status() == 200
        await raw.say(HANDSHAKE + b"\x81\x85\0\0\0\0hello")
        assert await raw.status() == 101
        assert await raw.frame() == b"hello"


async def test_no_answer_lands_inside_a_websocket(base: type[HTTPGuard]) -> None:
    async with site(base) as server, server.raw() as raw:
        server.app.hold.clear()
        await raw.say(GET % 1 + HANDSHAKE)
        await eventually(lambda: server.app.requests)
        await asyncio.sleep(0.05)
        server.app.hold.set()
        assert await raw.status() == 200
        if base is HttpToolsProtocol:
            assert await raw.rest() == b""  # its client may try again
        else:
            assert await raw.status() == 101


class Recorder(asyncio.Protocol):
    """A WebSocket class with everything the guard looks for."""

    made: ClassVar[list[Recorder]]

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        self.accepted_at = 0.0
        self.on_lost: Callable[[], None] | None = None
        self.log: list[Any] = []
        self.made.append(self)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def upgraded(self, target: bytes, headers: list[tuple[bytes, bytes]], server: Any, client: Any) -> None:
        assert self.transport.get_protocol() is self
        assert server == self.transport.get_extra_info("sockname")
        assert client == self.transport.get_extra_info("peername")
        self.log.append((target, headers))

    def data_received(self, data: bytes) -> None:
        self.log.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.on_lost is not None:
            self.on_lost()


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_websocket_class_gets_the_request_as_it_was_parsed(base: type[HTTPGuard], is_first: bool) -> None:
    class Own(Recorder):
        made: ClassVar[list[Recorder]] = []

    app = App()
    loop = asyncio.get_running_loop()
    async with serve_with(base, app, Own) as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        raw = Raw(reader, writer)
        began = loop.time()
        if not is_first:
            await raw.say(GET % 1)
            assert await raw.status() == 200
            await asyncio.sleep(0.2)
            began = loop.time()
        await raw.say(HANDSHAKE + b"behind")
        await eventually(lambda: Own.made and len(Own.made[0].log) == 2)
        (target, headers), trailing = Own.made[0].log
        assert target == b"/ws?token=secret"
        assert headers[:2] == [(b"host", b"x"), (b"upgrade", b"websocket")]
        assert trailing == b"behind"
        assert began - 0.1 < Own.made[0].accepted_at <= loop.time()
        other = await asyncio.open_connection("127.0.0.1", address.port)
        other[1].write(HANDSHAKE)
        assert await Raw(*other).status() == 503
        other[1].close()
        writer.close()
        await eventually(Own.made[0].transport.is_closing)
        # What is not GET goes the long way, to be refused by who knows how.
        again = await asyncio.open_connection("127.0.0.1", address.port)
        again[1].write(HANDSHAKE.replace(b"GET", b"POST"))
        await eventually(lambda: len(Own.made) == 2 and Own.made[1].log)
        assert Own.made[1].log[0].startswith(b"POST /ws?token=secret HTTP/1.1\r\nhost: x\r\n")
        again[1].transport.abort()


async def test_a_websocket_class_that_raises(base: type[HTTPGuard], caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Recorder):
        made: ClassVar[list[Recorder]] = []

        def upgraded(self, target: bytes, headers: list[tuple[bytes, bytes]], server: Any, client: Any) -> None:
            raise RuntimeError("a defect")

    async with serve_with(base, App(), Broken) as address:
        for number in range(2):  # the first does not count for ever
            reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
            await Raw(reader, writer).say(HANDSHAKE)
            assert await Raw(reader, writer).rest() == b""
            writer.close()
            assert len(Broken.made) == number + 1
    assert "Fatal error: protocol.data_received() call failed." in caplog.text
    caplog.clear()


@contextlib.asynccontextmanager
async def serve_with(base: type[HTTPGuard], app: App, ws: Any) -> AsyncIterator[Address]:
    """Serve with a WebSocket class of the test's."""
    kind: Any = ws
    async with serve(app, kind, http=base.configured(settings(max_connections=1)), access_log=False) as address:
        yield address


# --- limits


@pytest.mark.parametrize("kind", ["ours", "websockets-sansio", "wsproto"])
async def test_the_limit_of_connections(base: type[HTTPGuard], kind: str) -> None:
    async with site(base, {"max_connections": 2}, kind=kind) as server:
        async with server.address.connect(), server.address.connect() as peer:
            with pytest.raises(InvalidStatus) as refused:
                async with server.address.connect():
                    raise AssertionError("it was let in")
            assert refused.value.response.status_code == 503
            assert refused.value.response.headers["connection"] == "close"
            await peer.ws.send("hello")
            assert await peer.ws.recv() == "hello"
            async with server.raw() as raw:
                await raw.say(GET % 1)
                assert await raw.status() == 200  # it is one of WebSockets
        await eventually(lambda: not vars(server.state)["velocity_ws_http"].websockets)
        async with server.address.connect(), server.address.connect():
            pass
        await server.until_nobody_is_left()


async def test_uvicorns_own_limit(base: type[HTTPGuard]) -> None:
    async with site(base, limit_concurrency=3) as server:
        async with server.address.connect(), server.address.connect():
            with pytest.raises(InvalidStatus) as refused:
                async with server.address.connect():
                    raise AssertionError("it was let in")
            assert refused.value.response.status_code == 503
            async with server.raw() as raw:
                await raw.say(GET % 1)
                assert await raw.status() == 503  # uvicorn's


async def test_a_server_that_is_stopping(base: type[HTTPGuard]) -> None:
    async with site(base) as server, server.raw() as raw:
        await raw.say(GET % 1)
        assert await raw.status() == 200
        refuse_handshakes(server.state)
        await raw.say(HANDSHAKE)
        assert await raw.status() == 503
        assert await raw.rest() == b""


async def test_stopping_is_not_kept_waiting(base: type[HTTPGuard]) -> None:
    """Half a request, a refused peer that does not read, and a request being answered: the last alone is waited for."""
    async with contextlib.AsyncExitStack() as stack:
        async with site(base, {"handshake_timeout": 20}) as server:
            half, refused, busy = [await stack.enter_async_context(server.raw()) for _ in range(3)]
            await half.say(b"GET / HTTP/1.1\r\n")
            await refused.say(b"nonsense\r\n\r\n")
            server.app.hold.clear()
            await busy.say(GET % 1)
            await eventually(lambda: server.app.requests and len(server.state.connections) == 3)
            asyncio.get_running_loop().call_later(0.3, server.app.hold.set)
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 4  # and not the 5 that a stop may take, nor the 20
        assert await busy.status() == 200
        assert await half.rest() == b""


# --- settings


def test_the_class_is_the_one_uvicorn_would_take() -> None:
    assert HTTPProtocol is HttpToolsProtocol
    own = HTTPProtocol.configured(settings(max_connections=7))
    assert issubclass(own, HTTPProtocol)
    assert own.__name__ == HTTPProtocol.__name__


async def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WS_MAX_CONNECTIONS", "1")
    state.settings_from_environment.cache_clear()
    try:
        async with serve(App(), "ours", http=HTTPProtocol) as address, address.connect():
            with pytest.raises(InvalidStatus):
                async with address.connect():
                    raise AssertionError("it was let in")
    finally:
        state.settings_from_environment.cache_clear()


def test_an_environment_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("WS_HANDSHAKE_TIMEOUT", "soon")
    state.settings_from_environment.cache_clear()
    try:
        assert state.settings_from_environment().handshake_timeout == 10
        assert state.settings_from_environment().handshake_timeout == 10
    finally:
        state.settings_from_environment.cache_clear()
    (record,) = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert "WS_HANDSHAKE_TIMEOUT" in record.getMessage()
    caplog.clear()


# --- the other loop


@pytest.mark.parametrize(
    "test",
    [
        test_a_connection_that_says_nothing_is_closed,
        test_a_late_peer_that_never_reads_is_cut,
        test_large_headers_behind_another_request,
        test_what_is_no_http_is_refused,
        test_a_broken_body_while_it_is_read,
        test_no_answer_lands_inside_a_websocket,
        test_uvicorns_own_limit,
        test_stopping_is_not_kept_waiting,
    ],
    ids=lambda test: test.__name__.removeprefix("test_"),
)
def test_on_uvloop(base: type[HTTPGuard], test: Callable[[type[HTTPGuard]], Awaitable[None]]) -> None:
    async def run() -> None:
        await test(base)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
