"""The clients, in a process of their own: raw sockets, a handshake by hand, and as little as possible for each message.

While messages arrive it only counts frames and keeps the bytes. Every one of them is decoded and checked afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import time
import zlib
from collections.abc import Iterator
from typing import Any, cast

import uvloop

from benchmarks.process import answer_commands, pin

HANDSHAKES_AT_ONCE = 50
WAIT = 30.0
"""Seconds until what has not arrived counts as lost."""

FIN_TEXT, COMPRESSED = 0x81, 0x40


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, load: Load, port: int, *, deflate: bool) -> None:
        self._load = load
        self._port = port
        self._deflate = deflate
        self._head = b""
        self._rest = b""
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._transport: asyncio.Transport | None = None
        self.chunks: list[bytes] = []
        self.next_seq = 0
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # What a browser offers (RFC 7692).
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" if self._deflate else ""
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._opened(head)
            if not data:
                return
        if self._rest:
            data = self._rest + data
        end_of_last = count = 0
        for _, _, end_of_frame in frames(data):
            end_of_last = end_of_frame
            count += 1
        self.chunks.append(data[:end_of_last])
        self._rest = data[end_of_last:]
        self._load.count(count)

    def _opened(self, head: bytes) -> None:
        compresses = b"permessage-deflate" in head
        if not head.startswith(b"HTTP/1.1 101 ") or compresses != self._deflate:
            self.opened.set_exception(RuntimeError(f"not the handshake that was asked for: {head!r}"))
        else:
            self.opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(RuntimeError("closed during the handshake"))

    def close(self) -> None:
        """End without a goodbye; the server is ended with it."""
        if self._transport is not None:
            self._transport.abort()

    def take(self) -> Iterator[bytes]:
        """The payloads of all messages since the last time, decompressed."""
        data = b"".join(self.chunks)
        self.chunks.clear()
        for first, start, end in frames(data):
            payload = data[start:end]
            if first == FIN_TEXT | COMPRESSED:
                payload = self._inflate.decompress(payload + b"\x00\x00\xff\xff")
            elif first != FIN_TEXT:
                raise RuntimeError(f"not a text message in one frame: {data[:16]!r}")
            yield payload


class Load:
    """All clients, and what they can be told."""

    def __init__(self) -> None:
        self._connections: list[Connection] = []
        self._counted = 0
        self._expected = 0
        self._complete = asyncio.Event()
        self._began = (0.0, 0.0)

    def count(self, frames: int) -> None:
        """Frames have arrived."""
        self._counted += frames
        if self._counted >= self._expected:
            self._complete.set()

    async def connect(self, port: int, clients: int, deflate: bool) -> dict[str, Any]:
        """Connect new clients, in place of those that there were."""
        for connection in self._connections:
            connection.close()
        self._connections = []
        loop = asyncio.get_running_loop()
        while (missing := clients - len(self._connections)) > 0:
            made = await asyncio.gather(
                *(
                    loop.create_connection(lambda: Connection(self, port, deflate=deflate), "127.0.0.1", port)
                    for _ in range(min(missing, HANDSHAKES_AT_ONCE))
                )
            )
            connections = [connection for _, connection in made]
            await asyncio.gather(*(connection.opened for connection in connections))
            self._connections += connections
        return {}

    async def expect(self, messages: int) -> dict[str, Any]:
        """So many messages will come to each client from now on."""
        self._counted = 0
        self._expected = messages * len(self._connections)
        self._complete.clear()
        self._began = (time.perf_counter(), time.process_time())
        return {}

    async def wait(self) -> dict[str, Any]:
        """Wait until they have come; how busy this process was meanwhile, 0 to 1."""
        with contextlib.suppress(TimeoutError):  # `check` says what is missing
            async with asyncio.timeout(WAIT):
                await self._complete.wait()
        seconds = time.perf_counter() - self._began[0]
        return {"busy": (time.process_time() - self._began[1]) / seconds}

    async def check(self) -> dict[str, Any]:
        """Decode everything since the last time, and compare it with what was to come."""
        total = {"deliveries": 0, "lost": 0, "duplicated": 0, "disordered": 0, "payload": 0, "wire": 0}
        each = self._expected // len(self._connections)
        for connection in self._connections:
            total["wire"] += sum(map(len, connection.chunks))
            payloads = list(connection.take())
            got = [json.loads(payload)["data"]["seq"] for payload in payloads]
            due = range(connection.next_seq, connection.next_seq + each)
            connection.next_seq += each
            total["deliveries"] += len(got)
            total["lost"] += len(set(due) - set(got))
            total["duplicated"] += len(got) - len(set(got))
            total["disordered"] += sum(a > b for a, b in itertools.pairwise(got))
            total["payload"] += sum(map(len, payloads))
        return total


def frames(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Each whole frame of a server (RFC 6455, section 5.2): its first byte, where its payload begins and ends."""
    at, size = 0, len(data)
    while size - at >= 2:
        length = data[at + 1]
        start = at + 2
        if length >= 126:
            start += 2 if length == 126 else 8
            length = int.from_bytes(data[at + 2 : start])
        if start + length > size or start > size:
            return
        yield data[at], start, start + length
        at = start + length


async def main() -> None:
    """Do as told until stdin is closed."""
    load = Load()
    await answer_commands({"connect": load.connect, "expect": load.expect, "wait": load.wait, "check": load.check})


if __name__ == "__main__":
    pin(server=False)
    uvloop.run(main())
