"""Many messages, many connections, one that stalls: nothing is lost, and nothing grows."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import random
import socket
import sys
import threading
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from tests.programs.stalled_sizes import BATCH, MESSAGES, READERS, SIZE
from tests.support import DEADLINE, Address, ServerKind, eventually, running, settings
from tests.support.wire import frame, handshake
from velocity_ws import Broker, Client
from velocity_ws.concurrency.eager import KEEP
from velocity_ws.sessions.hints import MAX_NAMED


class NumberedClient(asyncio.Protocol):
    """A connection that counts numbered messages as they come, cheaply enough for hundreds in one process."""

    def __init__(self, port: int, *, stalled: bool = False) -> None:
        self.connected = asyncio.get_running_loop().create_future()
        self.done = asyncio.get_running_loop().create_future()
        self.next_number = 0
        self._port = port
        self._stalled = stalled
        self._handshake = b""
        self._buffer = bytearray()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def send(self, event: str) -> None:
        """Send a message without data, masked with zeros (RFC 6455, section 5.2)."""
        payload = json.dumps({"event": event}).encode()
        self._transport.write(bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload)

    def data_received(self, data: bytes) -> None:
        if not self.connected.done():
            self._handshake += data
            head, end, rest = self._handshake.partition(b"\r\n\r\n")
            if not end:
                return
            assert b" 101 " in head
            self.connected.set_result(None)
            if self._stalled:
                self._transport.pause_reading()
                self.send("stalled")
            data = rest
        self._buffer += data
        while len(self._buffer) > 10:
            assert self._buffer[0] == 0x81
            assert self._buffer[1] == 127
            length = int.from_bytes(self._buffer[2:10], "big")
            if len(self._buffer) < 10 + length:
                return
            start = bytes(self._buffer[10:60])
            assert length == SIZE + len(start.partition(b'"xx')[0]) + len('""]}'), start
            number = int(start.partition(b"[")[2].partition(b",")[0])
            assert number == self.next_number, f"{number} came where {self.next_number} was next"
            del self._buffer[: 10 + length]
            self.next_number += 1
            if number % BATCH == BATCH - 1:
                self.send("ack")
            if self.next_number == MESSAGES:
                self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done() and not self._stalled:
            self.done.set_exception(exc or ConnectionError("closed by the server"))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("policy", ["disconnect", pytest.param("drop", marks=pytest.mark.soak)])
async def test_one_stalled_reader_among_two_hundred(policy: str) -> None:
    """64 MB are broadcast to everyone; who reads gets all of it in order, whatever one of them does not read."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.programs.stalled", policy, stdout=PIPE, cwd=Path(__file__).parents[2]
    )
    assert server.stdout is not None
    loop = asyncio.get_running_loop()
    readers: list[NumberedClient] = []
    try:
        async with asyncio.timeout(100):
            port = int(await server.stdout.readline())
            with socket.socket() as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.setblocking(False)
                await loop.sock_connect(slow, ("127.0.0.1", port))
                _, stalled = await loop.create_connection(lambda: NumberedClient(port, stalled=True), sock=slow)
                for _ in range(READERS):
                    _, reader = await loop.create_connection(lambda: NumberedClient(port), "127.0.0.1", port)
                    readers.append(reader)
                for reader in (stalled, *readers):
                    await reader.connected
                readers[0].send("ready")
                await asyncio.gather(*[reader.done for reader in readers])
                report = json.loads(await server.stdout.readline())
                for reader in (stalled, *readers):
                    reader._transport.abort()
            assert await server.wait() == 0
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
    assert [reader.next_number for reader in readers] == [MESSAGES] * READERS
    assert report["growth"] < 16 * 1024 * 1024, report
    stats = report["stats"]
    if policy == "disconnect":
        assert report["ended"] == [[1013, "server"]]
        assert stats["slow_closes"] == 1
        assert stats["connected_clients"] == READERS
    else:
        assert report["stalled_connected"]
        assert stats["slow_closes"] == 0
        assert stats["dropped"] > 0
        assert stats["connected_clients"] == READERS + 1


def _mutations(seed: int, count: int) -> list[str | bytes]:
    """Random and mutated messages, as many of each kind as chance will have it."""
    chance = random.Random(seed)
    alphabet = '{}[]":,\\ntrue0123456789eE+-.aZ\u00e9\u2028\U0001f600 \t\x00'
    valid = [
        json.dumps({"event": "echo", "data": {"n": [1, 2, {"x": None}]}, "id": 7}),
        json.dumps({"event": "typed", "data": {"a": 1}}),
        json.dumps({"event": "echo", "data": "\u00e9" * 40, "id": "abc"}),
    ]
    frames: list[str | bytes] = []
    for _ in range(count):
        kind = chance.random()
        if kind < 0.2:
            frames.append(chance.randbytes(chance.randrange(60)))
        elif kind < 0.4:
            frames.append("".join(chance.choices(alphabet, k=chance.randrange(40))))
        else:
            text = list(chance.choice(valid))
            for _ in range(chance.randrange(4)):
                at = chance.randrange(len(text))
                what = chance.random()
                if what < 0.4:
                    text[at] = chance.choice(alphabet)
                elif what < 0.7:
                    del text[at]
                else:
                    text.insert(at, chance.choice(alphabet))
            frames.append("".join(text))
    return frames


@pytest.mark.parametrize("total", [20_000, pytest.param(100_000, marks=pytest.mark.soak)])
async def test_random_and_mutated_frames(total: int, caplog: pytest.LogCaptureFixture) -> None:
    broker = Broker(settings(rate_limit=0, send_queue_size="64MiB", ping_interval=0))  # pongs are behind all the rest
    handled = {"echo": 0, "typed": 0, "binary": 0}
    answered_calls = 0

    @broker.on("echo")
    async def echo(data: Any, message: Any) -> Any:
        nonlocal answered_calls
        handled["echo"] += 1
        answered_calls += message.id is not None
        return data

    @broker.on("typed")
    async def typed(data: dict[str, int], message: Any) -> None:
        nonlocal answered_calls
        handled["typed"] += 1
        answered_calls += message.id is not None

    @broker.on_binary
    async def binary(data: bytes) -> None:
        handled["binary"] += 1

    connections = 4
    frames_each = total // connections
    caplog.set_level(logging.WARNING)
    async with running(broker, ws_per_message_deflate=False) as address:

        async def one(seed: int) -> int:
            answers = 0
            async with address.connect(compression=None, max_queue=None, ping_interval=None) as peer:
                frames = _mutations(seed, frames_each)

                async def read() -> None:
                    nonlocal answers
                    async for raw in peer.ws:
                        message = json.loads(raw)
                        if message.get("id") == "the end":
                            assert message == {"event": "reply", "id": "the end", "data": "alive"}
                            return
                        answers += 1

                reading = asyncio.create_task(read())
                for frame in frames:
                    await peer.ws.send(frame)
                await peer.send("echo", "alive", id="the end")
                await reading
                sizes.append(sum(len(f) if isinstance(f, bytes) else len(f.encode()) for f in frames))
            return answers

        sizes: list[int] = []
        answers = sum(await asyncio.gather(*[one(seed) for seed in range(connections)]))
        await eventually(lambda: not broker.node.lifecycle.sessions)
    stats = broker.get_stats()
    end = len(json.dumps({"event": "echo", "data": "alive", "id": "the end"}))
    assert stats.messages_received == total + connections
    assert stats.bytes_received == sum(sizes) + connections * end
    assert stats.invalid + sum(handled.values()) == stats.messages_received
    assert stats.invalid > total / 10
    assert min(handled.values()) > total / 100
    assert answers + connections == stats.messages_sent == stats.invalid + answered_calls
    assert stats.errors == 0
    assert stats.dropped == 0
    assert {record.name for record in caplog.records} == {"velocity_ws.sessions"}
    assert len(caplog.records) == MAX_NAMED + 2, "events without a handler, that further ones are not named, wrong data"


async def _cycle(address: Address, number: int) -> None:
    """Connect, join a room, leave in one of three ways."""
    reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
    writer.write(
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{address.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    payload = json.dumps({"event": "join", "data": f"room {number % 7}", "id": 1}).encode()
    writer.write(bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload)
    head = await reader.readexactly(2)
    await reader.readexactly(head[1] & 0x7F)
    if number % 3 == 0:
        writer.write(b"\x88\x82\x00\x00\x00\x00\x03\xe8")  # a close frame, and its answer
        await reader.read()
    elif number % 3 == 1:
        writer.transport.abort()
    writer.close()
    try:
        await writer.wait_closed()
    except ConnectionError:
        return


@pytest.mark.parametrize("total", [3_000, pytest.param(10_000, marks=pytest.mark.soak)])
async def test_connections_come_and_go(total: int) -> None:
    broker = Broker(settings())
    gone = 0

    @broker.on("join")
    async def join(client: Client, data: str) -> None:
        await broker.join_room(client.id, data)

    @broker.on_disconnect
    async def left(client: Client) -> None:
        nonlocal gone
        gone += 1

    def footprint() -> tuple[int, int]:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
        return len(gc.get_objects()), pages * (os.sysconf("SC_PAGE_SIZE") if pages else 0)

    async with running(broker, ws_per_message_deflate=False) as address:
        tasks = len(asyncio.all_tasks())

        async def cycles(start: int, count: int) -> None:
            numbers = iter(range(start, start + count))

            async def worker() -> None:
                for number in numbers:
                    await _cycle(address, number)

            await asyncio.gather(*[worker() for _ in range(20)])
            await eventually(lambda: gone == start + count)
            await eventually(lambda: len(asyncio.all_tasks()) <= tasks + KEEP)

        before = total // 5
        await cycles(0, before)
        objects, memory = footprint()
        await cycles(before, total - before)
        objects_after, memory_after = footprint()
    stats = broker.get_stats()
    assert stats.connections == total
    assert (stats.connected_clients, stats.rooms) == (0, 0)
    assert not broker.node.lifecycle.sessions
    assert not broker.node.lifecycle.handshakes
    assert broker.node.connection_limits.is_empty
    assert objects_after - objects < 500
    assert memory_after - memory < 8 * 1024 * 1024


@pytest.mark.parametrize("kind", ["websockets-sansio", "wsproto", "ours"])  # hypercorn is not that fair
async def test_a_peer_that_is_never_done(kind: ServerKind) -> None:
    """A client that floods is heard in turn: others are answered after a few of its messages, and not thousands."""
    broker = Broker(settings(rate_limit=0))
    heard = 0

    @broker.on("flood")
    async def flood() -> None:
        nonlocal heard
        heard += 1

    @broker.on("echo")
    async def echo(data: int) -> int:
        return data

    stop = threading.Event()

    def flooding(port: int) -> None:
        frames = 1000 * frame(0x81, b'{"event":"flood"}')
        with socket.create_connection(("127.0.0.1", port)) as sock, contextlib.suppress(OSError):
            sock.sendall(handshake())
            while not stop.is_set():
                sock.sendall(frames)

    async with running(broker, kind) as address, address.connect() as victim:
        thread = asyncio.create_task(asyncio.to_thread(flooding, address.port))
        try:
            await eventually(lambda: heard)
            between: list[int] = []
            async with asyncio.timeout(DEADLINE):
                while len(between) < 50 or sum(between) <= 50:  # its thread may have to wait for its first turn
                    before = heard
                    assert (await victim.request("echo", len(between)))["data"] == len(between)
                    between.append(heard - before)
        finally:
            stop.set()
            await thread
    assert sorted(between)[len(between) // 2] < 500
