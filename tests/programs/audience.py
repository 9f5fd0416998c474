"""Readers of broadcasts that they ask for one at a time, and now and then one more, who reads nothing.

Arguments: port, readers, rounds, messages in a round, bytes of filler in a message. Each round runs twice: with the
readers alone, and with one more that stalls. Every message is checked for loss and order. Prints ``ready`` once all are
connected, warms up when it is told to, says ``warm``, begins when it is told again, and at the end prints one line of
JSON: for each round the latency's percentiles in milliseconds, from before the broadcast to a reader's last byte.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from typing import cast

import uvloop

from tests.support.wire import frame, handshake

HEAD = 64
"""Bytes of a frame that are enough to read its length, its number and its time."""
PATIENCE = 60.0
"""Seconds that one message may take to everyone."""
buffer = memoryview(bytearray(1 << 20))
"""One for everyone: what is in it is dealt with at once."""


class Round:
    """What the readers of one round have got."""

    def __init__(self, readers: int) -> None:
        self.readers = readers
        self.missing = 0
        self.number = -1
        self.all_have_it = asyncio.Event()
        self.latencies: list[float] = []

    def next(self, number: int) -> None:
        """Wait for one more message."""
        self.number = number
        self.missing = self.readers
        self.all_have_it.clear()

    def got(self, number: int, since: float) -> None:
        """A reader has a message."""
        assert number == self.number, f"{number} came where {self.number} was next"
        self.latencies.append(time.monotonic() - since)
        self.missing -= 1
        if not self.missing:
            self.all_have_it.set()


class Receiver(asyncio.BufferedProtocol):
    """A connection that takes messages as they come."""

    def __init__(self, now: list[Round]) -> None:
        loop = asyncio.get_running_loop()
        self.connected: asyncio.Future[None] = loop.create_future()
        self.is_over = False
        self._now = now
        self._head = bytearray()
        self._left = 0
        self._what = (0, 0.0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(handshake())

    def get_buffer(self, sizehint: int) -> memoryview:
        return buffer

    def buffer_updated(self, nbytes: int) -> None:
        at = 0
        if not self.connected.done():
            self._head += buffer[:nbytes]
            if not self._head.endswith(b"\r\n\r\n"):
                return
            assert b" 101 " in self._head
            self._head.clear()
            self.connected.set_result(None)
            return
        while at < nbytes:
            if self._left:
                step = min(self._left, nbytes - at)
                self._left -= step
                at += step
                if not self._left:
                    self._now[0].got(*self._what)
                continue
            step = min(HEAD - len(self._head), nbytes - at)
            self._head += buffer[at : at + step]
            at += step
            if len(self._head) == HEAD:
                self._begin()

    def _begin(self) -> None:
        """A message begins: ``{"event":"n","data":[number,time,"xxx…"]}``."""
        assert self._head[0] == 0x81
        assert self._head[1] == 127
        number, since, _ = self._head[10:].partition(b"[")[2].split(b",", 2)
        self._what = int(number), float(since)
        self._left = 10 + int.from_bytes(self._head[2:10], "big") - HEAD
        self._head.clear()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True
        if not self.connected.done():
            self.connected.set_exception(exc or ConnectionError("refused"))


async def stall(port: int) -> socket.socket:
    """One that is connected and reads nothing."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, handshake())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = await loop.sock_recv(sock, 1)
        assert data
        head += data
    return sock


def percentiles(latencies: list[float]) -> list[float]:
    """Median, 99th and highest, in milliseconds."""
    latencies.sort()
    at = (len(latencies) // 2, len(latencies) * 99 // 100, len(latencies) - 1)
    return [round(latencies[place] * 1000, 3) for place in at]


async def main(port: int, count: int, rounds: int, messages: int, size: int) -> None:
    """Listen to all rounds."""
    loop = asyncio.get_running_loop()
    now = [Round(count)]
    readers: list[Receiver] = []
    for _ in range(count):
        _, reader = await loop.create_connection(lambda: Receiver(now), "127.0.0.1", port)
        readers.append(reader)
        await reader.connected
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    number = -1

    async def listen(amount: int) -> list[float]:
        nonlocal number
        now[0] = Round(count)
        for _ in range(amount):
            number += 1
            now[0].next(number)
            readers[number % count].transport.write(
                frame(0x81, json.dumps({"event": "shout", "data": [number, size]}).encode())
            )
            async with asyncio.timeout(PATIENCE):
                await now[0].all_have_it.wait()
        return percentiles(now[0].latencies)

    await listen(50)  # until everything has its size
    print("warm", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    alone, beside = [], []
    began = time.monotonic()
    for turn in range(2 * rounds):
        if turn % 2 == 0:
            alone.append(await listen(messages))
        else:
            with await stall(port):
                beside.append(await listen(messages))
    seconds = time.monotonic() - began
    assert not any(reader.is_over for reader in readers)
    print(json.dumps({"alone": alone, "beside": beside, "seconds": round(seconds, 1)}), flush=True)
    for reader in readers:
        reader.transport.abort()


uvloop.run(main(*map(int, sys.argv[1:])))
