"""Ends and limits that are easily off by one: what is answered before goodbye, pings, sizes, cancellations, methods."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from tests.support import DEADLINE, Address, Peer, eventually, running, serve, settings
from tests.support.wire import bomb, frame, handshake
from velocity_ws import Broker, Close, Server
from velocity_ws.uvicorn import HTTPProtocol

LIMIT = 100_000
"""WS_MAX_MESSAGE_SIZE of the server that is sent as much, in bytes."""


@asynccontextmanager
async def bare(address: Address) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A WebSocket of which each frame is seen; nothing is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
    try:
        writer.write(handshake())
        async with asyncio.timeout(DEADLINE):
            await reader.readuntil(b"\r\n\r\n")
        yield reader, writer
    finally:
        writer.transport.abort()


@asynccontextmanager
async def _two(server: Server) -> AsyncIterator[tuple[Peer, Peer]]:
    address = Address(server.port)
    async with address.connect() as one, address.connect() as other:
        yield one, other


# --- stopping


async def test_what_is_being_handled_is_answered_before_goodbye() -> None:
    broker = Broker(settings(drain_timeout=5))
    begun, go = asyncio.Event(), asyncio.Event()

    @broker.on("slow")
    async def slow(client: Any) -> str:
        begun.set()
        await go.wait()
        await broker.join_room(client.id, "late")
        return "done"

    async with Server(broker, port=0) as server, _two(server) as (peer, idle):
        await peer.send("slow", id=7)
        await begun.wait()
        stopping = asyncio.create_task(server.stop())
        # Who is idle may be closed at once or in the end; where it is closed, so would be the other.
        closed = asyncio.create_task(idle.closed())
        await asyncio.wait([closed], timeout=0.3)
        assert not stopping.done()
        go.set()
        assert await peer.receive() == {"event": "reply", "data": "done", "id": 7}
        assert (await peer.closed())[0] == 1012
        assert (await closed)[0] == 1012
        await stopping
    assert broker.get_stats().errors == 0
    assert broker.get_stats().dropped == 0


# --- keepalive


@pytest.mark.usefixtures("unhurried")
async def test_pings_come_an_interval_apart_whatever_the_timeout() -> None:
    broker = Broker(settings(ping_interval=0.1, ping_timeout=DEADLINE))
    async with running(broker, "ours") as address, bare(address) as (reader, writer), asyncio.timeout(DEADLINE):
        for _ in range(3):
            first, size = await reader.readexactly(2)
            assert first == 0x89
            writer.write(frame(0x8A, await reader.readexactly(size)))


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("answered", [0, 2])
async def test_who_answers_no_more_pings_is_cut_after_the_timeout(answered: int) -> None:
    broker = Broker(settings(ping_interval=0.1, ping_timeout=0.3))
    ended: list[Close] = []
    loop = asyncio.get_running_loop()

    @broker.on_disconnect
    async def gone(close: Close) -> None:
        ended.append(close)

    async with running(broker, "ours") as address:
        began = loop.time()
        async with bare(address) as (reader, writer):
            for _ in range(answered):
                first, size = await reader.readexactly(2)
                assert first == 0x89
                began = loop.time()  # before the pong, which has the next ping come
                writer.write(frame(0x8A, await reader.readexactly(size)))
            await eventually(lambda: ended, within=2)
        assert loop.time() - began > 0.35  # 0.4
        assert (ended[0].code, ended[0].by) == (1006, "network")


# --- a task that is remembered


@pytest.mark.parametrize("by", ["the same client", "another client"])
async def test_who_cancels_a_handler_that_has_ended_harms_nobody(by: str) -> None:
    broker = Broker(settings())
    ended: list[asyncio.Task[Any]] = []
    begun, go = asyncio.Event(), asyncio.Event()

    @broker.on("brief")
    async def brief() -> str:
        task = asyncio.current_task()
        assert task is not None
        ended.append(task)
        await asyncio.sleep(0)
        return "brief"

    @broker.on("long")
    async def long() -> str:
        begun.set()
        await go.wait()
        return "long"

    @broker.on("cancel")
    async def cancel() -> str:
        ended[0].cancel()
        await asyncio.sleep(0)
        return "cancelled"

    async with running(broker, "ours") as address, address.connect() as one, address.connect() as victim:
        assert (await one.request("brief"))["data"] == "brief"
        await victim.send("long", id=1)
        await begun.wait()
        async with address.connect() as other:
            canceller = one if by == "the same client" else other
            assert (await canceller.request("cancel"))["data"] == "cancelled"
        go.set()
        assert (await victim.receive())["data"] == "long"
        assert (await one.request("brief"))["data"] == "brief"
        assert (await victim.request("brief"))["data"] == "brief"
    assert broker.get_stats().errors == 0


# --- sizes


@pytest.mark.parametrize("memory", [8, 5], ids=["zlib's defaults", "the library's defaults"])
@pytest.mark.parametrize("parts", [1, 2], ids=["a frame", "two fragments"])
async def test_the_limit_is_of_the_content_however_it_was_deflated(parts: int, memory: int) -> None:
    broker = Broker(settings(max_message_size=LIMIT))
    sizes: list[int] = []

    @broker.on_binary
    async def take(data: bytes) -> None:
        sizes.append(len(data))

    def message(size: int) -> bytes:
        compressor = zlib.compressobj(wbits=-12, memLevel=memory)
        payload = compressor.compress(random.Random(1).randbytes(size)) + compressor.flush(zlib.Z_SYNC_FLUSH)
        payload = payload.removesuffix(b"\x00\x00\xff\xff")
        assert len(payload) > size
        if parts == 1:
            return frame(0xC2, payload)
        return frame(0x42, payload[:1000]) + frame(0x80, payload[1000:])

    async with running(broker, "ours") as address, address.connect() as peer:
        assert peer.ws.protocol.extensions
        peer.ws.transport.write(message(LIMIT))
        await eventually(lambda: sizes or peer.ws.close_code)
        assert sizes == [LIMIT]
        peer.ws.transport.write(message(LIMIT + 1))
        assert (await peer.closed())[0] == 1009
    assert sizes == [LIMIT]


@pytest.mark.parametrize("before", [0, 10], ids=["a frame", "its second fragment"])
async def test_a_message_that_will_be_too_long_is_refused_before_it_is_there(before: int) -> None:
    broker = Broker(settings(max_message_size=LIMIT))
    data = bomb(128)[: LIMIT - 1000]
    sent = frame(0x42, data[:before]) + frame(0x80, data[before:]) if before else frame(0xC2, data)
    async with running(broker, "ours") as address, address.connect() as peer:
        peer.ws.transport.write(sent[:8192])
        assert (await peer.closed())[0] == 1009


async def test_what_follows_a_fragment_is_not_taken_for_a_part_of_it() -> None:
    broker = Broker(settings(max_message_size=LIMIT))
    got: list[bytes] = []

    @broker.on_binary
    async def take(data: bytes) -> None:
        got.append(data)

    content = random.Random(1).randbytes(5000) + bytes(LIMIT - 5002)
    compressor = zlib.compressobj(wbits=-12)
    first = compressor.compress(content) + compressor.flush(zlib.Z_SYNC_FLUSH)
    one, nothing = b"\0\1\0\xfe\xffx", b"\0\0\0\xff\xff"
    second = frame(0x80, one * 2 + nothing * 1636 + b"\0", mask=b"\xdf\0\0\0")
    assert len(zlib.decompressobj(wbits=-12).decompress(second)) > 8000  # its header, too, is deflated data
    async with running(broker, "ours") as address, address.connect() as peer:
        peer.ws.transport.write(frame(0x42, first) + second)
        await eventually(lambda: got or peer.ws.close_code)
        assert got == [content + b"xx"]


# --- methods


@pytest.mark.parametrize("http", [HTTPProtocol, "httptools", "h11"])
async def test_only_get_opens_a_websocket(http: Any) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope["type"])
        await receive()
        await send({"type": "websocket.accept"})

    scopes: list[str] = []
    async with serve(app, "ours", http=http, lifespan="off") as address:
        reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        writer.write(handshake().replace(b"GET", b"POST", 1))
        async with asyncio.timeout(DEADLINE):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 405 "), head
            await reader.read()  # to the end: the connection closes
        writer.close()
        await writer.wait_closed()
    assert scopes == []
