"""What a client is given in one turn of the loop leaves in one write: system calls under bursts, counted."""

from __future__ import annotations

import asyncio
from typing import Literal

import pytest

from tests.support import DEADLINE
from tests.support.say import Say
from tests.support.siege import besieged
from tests.support.wire import handshake

CLIENTS = 200
BURST = 20


class CountingClient(asyncio.Protocol):
    """A client that counts the messages it gets, all of which are of one kind: ``{"event":"n","data":…}``."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.connected: asyncio.Future[None] = loop.create_future()
        self.numbers: list[int] = []
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport
        transport.write(handshake())

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self.connected.done():
            head, end, self._data = self._data.partition(b"\r\n\r\n")
            if not end:
                self._data = head
                return
            assert b" 101 " in head
            self.connected.set_result(None)
        while len(self._data) >= 2 and len(self._data) >= 2 + self._data[1]:
            message = self._data[2 : 2 + self._data[1]]
            self._data = self._data[2 + len(message) :]
            self.numbers.append(int(message.partition(b'"data":')[2].rstrip(b"}")))


async def bursts(loop_kind: str, count: int, say: Say) -> float:
    """Write system calls for each delivery, in so many bursts; every delivery is checked."""
    loop = asyncio.get_running_loop()
    async with besieged(loop=loop_kind) as server:
        readers: list[CountingClient] = []
        for _ in range(CLIENTS):
            _, reader = await loop.create_connection(CountingClient, "127.0.0.1", server.port)
            readers.append(reader)
        for reader in readers:
            async with asyncio.timeout(DEADLINE):
                await reader.connected
        answer = await server.ask(f"burst {count} {BURST}", within=60)
        async with asyncio.timeout(DEADLINE):
            while any(len(reader.numbers) < count * BURST for reader in readers):
                await asyncio.sleep(0.01)  # the pause between two looks
        for reader in readers:
            assert reader.numbers == list(range(count * BURST))
            reader.transport.abort()
    assert answer["loop"] == loop_kind
    assert answer["sent"] == CLIENTS * BURST * count
    # One write for each client and burst at the least, or nothing was counted.
    assert answer["calls"] >= CLIENTS * count
    assert server.log == []
    calls = answer["calls"] / answer["sent"]
    say(f"bursts of {BURST} to {CLIENTS} clients on {loop_kind}: {calls:.4f} write system calls for each delivery")
    return float(calls)


@pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])
async def test_a_burst_leaves_in_one_write_for_each_client(loop_kind: Literal["asyncio", "uvloop"], say: Say) -> None:
    assert await bursts(loop_kind, 5, say) <= 0.1


@pytest.mark.soak
@pytest.mark.parametrize("loop_kind", ["asyncio", "uvloop"])
async def test_a_hundred_bursts(loop_kind: Literal["asyncio", "uvloop"], say: Say) -> None:
    assert await bursts(loop_kind, 100, say) <= 0.1
