"""What waits in the transport: it is bounded, cannot keep a connection that is over, and is not lost at a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.utils import ClientDisconnected

from tests.support import DEADLINE, eventually, serve, settings
from tests.support.wire import frame, handshake
from velocity_ws import Broker, Close, Server
from velocity_ws.uvicorn import WebSocketProtocol

SOON = 3.0
"""Seconds within which something happens that a defect delays by a timeout of ten, or for ever."""
MEBIBYTE = 1024 * 1024
MARK = 64 * 1024
"""WS_WRITE_BUFFER_SIZE, in bytes."""


class Slow:
    """A client on a bare socket that takes a few kilobytes, and then nothing until it is told to read."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._loop = asyncio.get_running_loop()
        self._data = bytearray()

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        async with asyncio.timeout(DEADLINE):
            await self._loop.sock_sendall(self.sock, data)

    async def upgrade(self) -> None:
        """Open the WebSocket."""
        await self.send(handshake())
        while b"\r\n\r\n" not in self._data:
            assert await self._more()
        assert self._data.startswith(b"HTTP/1.1 101 "), self._data
        del self._data[: self._data.index(b"\r\n\r\n") + 4]

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        """First byte and payload of each frame, up to the close frame."""
        while True:
            while len(self._data) < 2 or len(self._data) < self._size():
                if not await self._more():
                    return
            first, size, length = self._data[0], self._size(), self._length()
            content = bytes(self._data[size - length : size])
            del self._data[:size]
            yield first, content
            if first == 0x88:
                return

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        while await self._more():
            pass
        return bytes(self._data)

    def _length(self) -> int:
        short, wide = self._data[1], {126: 2, 127: 8}
        return short if short < 126 else int.from_bytes(self._data[2 : 2 + wide[short]], "big")

    def _size(self) -> int:
        return {126: 4, 127: 10}.get(self._data[1], 2) + self._length()

    async def _more(self) -> bool:
        async with asyncio.timeout(DEADLINE):
            try:
                data = await self._loop.sock_recv(self.sock, 1 << 18)
            except ConnectionError:
                return False
        self._data += data
        return bool(data)


@contextlib.asynccontextmanager
async def slow(port: int, *, upgrade: bool = True) -> AsyncIterator[Slow]:
    """Such a client, its WebSocket open."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        async with asyncio.timeout(DEADLINE):
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        client = Slow(sock)
        if upgrade:
            await client.upgrade()
        yield client


async def fill(broker: Broker, transport: asyncio.Transport, size: int) -> None:
    """Send until so many bytes wait in the transport; where that is over its mark, more waits in the queue."""
    async with asyncio.timeout(DEADLINE):
        while transport.get_write_buffer_size() < size:
            assert await broker.broadcast("x", "y" * 20_000) == 1
            await asyncio.sleep(0)
    if size > MARK:
        for _ in range(5):
            await broker.broadcast("x", "y" * 20_000)


def only(server: Server) -> Any:
    """The server's connection."""
    (connection,) = server._uvicorn.server_state.connections
    return connection


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The WebSockets a server has, for servers that do not tell."""
    found: list[Any] = []
    made = WebSocketProtocol.connection_made

    def connection_made(self: WebSocketProtocol, transport: asyncio.BaseTransport) -> None:
        found.append(self)
        made(self, transport)

    monkeypatch.setattr(WebSocketProtocol, "connection_made", connection_made)
    yield found
    found.clear()


# --- an HTTP response that was not read


@pytest.mark.parametrize("http", ["ours", "httptools", "h11"])
async def test_a_response_that_is_not_read_lifts_no_bound_from_the_websocket(http: str) -> None:
    body, queue = "x" * 6 * MEBIBYTE, 256 * 1024
    app = Starlette(routes=[Route("/big", lambda _: PlainTextResponse(body))])
    broker = Broker(settings(send_queue_size=queue, write_buffer_size=MARK, ping_interval=0))
    options = {} if http == "ours" else {"http": http}
    async with Server(broker, app, port=0, **options) as server, slow(server.port, upgrade=False) as client:
        await client.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        await eventually(lambda: server._uvicorn.server_state.connections)
        transport = only(server).transport
        await eventually(lambda: transport.get_write_buffer_size() > MEBIBYTE)
        await client.send(handshake())
        await eventually(lambda: broker.get_clients() or transport.is_closing())
        before = transport.get_write_buffer_size()
        for _ in range(30):
            await broker.broadcast("x", "y" * 200_000)
            await asyncio.sleep(0)
            assert transport.get_write_buffer_size() <= before + MARK + queue + MEBIBYTE
        if not broker.get_stats().connections:
            assert b"HTTP/1.1 101" not in await client.rest()


# --- a client that goes while something waits


def ends_of(broker: Broker) -> list[Close]:
    """How its clients end, as they do."""
    ended: list[Close] = []

    @broker.on_disconnect
    async def gone(close: Close) -> None:
        ended.append(close)

    return ended


@pytest.mark.parametrize("waiting", [1, MARK + 1], ids=["below the mark", "above the mark"])
async def test_who_sends_fin_is_gone_at_once_for_the_broker(waiting: int) -> None:
    broker = Broker(settings(ping_interval=0, write_buffer_size=MARK))
    ended = ends_of(broker)
    async with Server(broker, port=0) as server, slow(server.port) as client:
        await eventually(broker.get_clients)
        await fill(broker, only(server).transport, waiting)
        client.sock.shutdown(socket.SHUT_WR)
        await eventually(lambda: ended, within=SOON)
        assert (ended[0].code, ended[0].by) == (1006, "network")
        assert broker.get_clients() == []
        assert await broker.broadcast("x", "nobody is there") == 0
        client.sock.close()
    assert len(ended) == 1


@pytest.mark.parametrize("waiting", [1, MARK + 1], ids=["below the mark", "above the mark"])
async def test_who_sends_fin_and_does_not_read_is_cut(waiting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.websocket.writer.CLOSE_TIMEOUT", 0.3)
    broker = Broker(settings(ping_interval=0, write_buffer_size=MARK))
    async with Server(broker, port=0) as server, slow(server.port) as client:
        await eventually(broker.get_clients)
        await fill(broker, only(server).transport, waiting)
        client.sock.shutdown(socket.SHUT_WR)
        await eventually(lambda: not server._uvicorn.server_state.connections, within=SOON)


@pytest.mark.parametrize("waiting", [30_000, MARK + 1], ids=["below the mark", "above the mark"])
async def test_who_closes_and_then_reads_gets_all_that_counts_as_sent(waiting: int) -> None:
    broker = Broker(settings(ping_interval=0, write_buffer_size=MARK))
    ended = ends_of(broker)
    async with Server(broker, port=0) as server, slow(server.port) as client:
        await eventually(broker.get_clients)
        await fill(broker, only(server).transport, waiting)
        await client.send(frame(0x88, (1000).to_bytes(2, "big")))
        await eventually(lambda: ended)
        assert (ended[0].code, ended[0].by) == (1000, "client")
        frames = [found async for found in client.frames()]
        assert await client.rest() == b""
    assert [first for first, _ in frames[:-1]] == [0x81] * broker.get_stats().messages_sent
    assert frames[-1][0] == 0x88
    assert frames[-1][1][:2] == (1000).to_bytes(2, "big")


# --- an application that is not ours


class Foreign:
    """An application that accepts, and then does what a test says, once the transport has no room."""

    def __init__(self, connections: list[Any], then: Callable[[Send], Any]) -> None:
        self._connections = connections
        self._then = then
        self.done = asyncio.Event()
        self.error: BaseException | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
            return
        await receive()
        await send({"type": "websocket.accept"})
        (connection,) = self._connections
        await _send(send, bytes(4 * MEBIBYTE))
        assert connection.transport.get_write_buffer_size() > MEBIBYTE
        try:
            await self._then(send)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.done.set()


async def _send(send: Send, content: bytes) -> None:
    await send({"type": "websocket.send", "bytes": content})


async def _waiting(*tasks: asyncio.Task[None]) -> None:
    """Let them begin; they have room for nothing."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def test_a_send_that_is_cancelled_harms_no_other(connections: list[Any]) -> None:
    failed: list[object] = []
    is_blocked = asyncio.Event()

    async def then(send: Send) -> None:
        tasks = [asyncio.create_task(_send(send, content)) for content in (b"first", b"second", b"third")]
        await _waiting(*tasks)
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        await _waiting(*tasks[1:])
        tasks.append(asyncio.create_task(_send(send, b"fourth")))
        await _waiting(*tasks[1:])
        is_blocked.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        failed.extend(result for result in results[1:] if result is not None)

    app = Foreign(connections, then)
    async with serve(app, "ours", ws_ping_interval=None) as address, slow(address.port) as client:
        await eventually(lambda: is_blocked.is_set() or app.done.is_set())
        frames = [content async for _, content in client.frames()]
        assert app.error is None
    assert failed == []
    assert [content for content in frames if len(content) < 10][:3] == [b"second", b"third", b"fourth"]


async def test_an_application_that_ends_cancelled_closes(connections: list[Any]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            raise asyncio.CancelledError

    async with serve(app, "ours", lifespan="off") as address, address.connect() as peer:
        assert (await peer.closed())[0] == 1011
        await eventually(lambda: connections[0]._writer.is_lost)


async def test_a_close_waits_for_no_room(connections: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.websocket.writer.CLOSE_TIMEOUT", 0.3)
    was_cut: list[bool] = []

    async def then(send: Send) -> None:
        other = asyncio.create_task(_send(send, b"waits"))
        await _waiting(other)
        await send({"type": "websocket.close", "code": 1000})
        was_cut.append(connections[0].transport.is_closing())
        with contextlib.suppress(ClientDisconnected):
            await other

    app = Foreign(connections, then)
    async with serve(app, "ours", ws_ping_interval=None) as address, slow(address.port):
        await eventually(lambda: connections and connections[0].transport.is_closing(), within=SOON)
        await eventually(app.done.is_set, within=SOON)
        assert app.error is None
    assert was_cut == [False]
