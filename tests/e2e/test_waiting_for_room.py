"""`client.send(…, wait=True)` and `client.drained()`: what is large reaches a client that reads, at its own pace."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import Any

import pytest

from tests.support import DEADLINE, Address, ServerKind, eventually, running, settings
from tests.support.stalled import stalled
from tests.support.wire import frame
from velocity_ws import Broker, Client, ClientGone, ClientTimeout, Close, WouldDeadlockError

QUEUE = 256 * 1024
PIECE = b"x" * 64 * 1024
PIECES = 320
"""20 MiB in all: eighty times what may wait."""
NEWS_EVERY = 8


def broker_with(**values: Any) -> Broker:
    """One whose clients are sent a snapshot when they ask for it, and how that ended in `ended`."""
    return Broker(settings(send_queue_size=QUEUE, enable_compression=False, **values))


async def read_slowly(address: Address, *, until: bytes) -> tuple[int, int]:
    """Ask for a snapshot and read a little at a time, but all the time; pieces and other messages that came."""
    pieces = others = 0
    async with address.connect(max_size=None, max_queue=1, compression=None) as peer:
        await peer.send("snapshot")
        while (message := await peer.ws.recv()) != until:
            if isinstance(message, bytes):
                pieces += 1
                await asyncio.sleep(0.001)  # a pace, not a wait
            else:
                others += 1
        return pieces, others


@pytest.mark.parametrize("way", ["wait", "drained"])
async def test_a_snapshot_of_any_size_reaches_a_client_that_reads(kind: ServerKind, way: str) -> None:
    broker = broker_with()
    most = 0

    @broker.on("snapshot")
    async def snapshot(client: Client) -> None:
        nonlocal most
        outbox: Any = next(iter(broker.node.lifecycle.sessions)).outbox
        for number in range(PIECES if way == "wait" else PIECES // 4):
            if way == "wait":
                assert await client.send_bytes(PIECE, wait=True)
            else:
                assert await client.send_bytes(PIECE)
                await client.drained()
            most = max(most, outbox.queued_bytes)
            if number % NEWS_EVERY == 0:
                assert await broker.broadcast("news", number) == 1
        await client.send_bytes(b"end", wait=True)

    async with running(broker, kind) as address:
        count = PIECES if way == "wait" else PIECES // 4
        assert await read_slowly(address, until=b"end") == (count, count // NEWS_EVERY)
        assert broker.get_stats().dropped == broker.get_stats().errors == 0
    assert most <= QUEUE


@pytest.mark.parametrize("policy", ["disconnect", "drop"])
async def test_one_that_reads_nothing_is_given_up_in_time(kind: ServerKind, policy: str) -> None:
    broker = broker_with(ping_interval=0, slow_client=policy)
    caught: asyncio.Future[ClientTimeout] = asyncio.get_running_loop().create_future()

    @broker.on_connect
    async def snapshot(client: Client) -> None:
        try:
            while True:
                await client.send("rows", "x" * 60_000, wait=True, timeout=0.1)
        except ClientTimeout as error:
            caught.set_result(error)

    async with running(broker, kind) as address, stalled(address):
        async with asyncio.timeout(DEADLINE):
            error = await caught
        (session,) = broker.node.lifecycle.sessions
        assert (error.client_id, error.seconds) == (session.id, 0.1)
        assert "longer timeout" in str(error)
        assert session.client.is_connected == (policy == "drop")
        outbox: Any = session.outbox
        assert outbox is None or outbox.queued_bytes <= QUEUE
        stats = broker.get_stats()
        assert (stats.dropped >= 1, stats.slow_closes) == (True, int(policy == "disconnect"))
        if policy == "drop":
            with pytest.raises(ClientTimeout):
                await session.client.drained(timeout=0.05)
            assert session.client.is_connected
        session.abort(hurry=True)
        await eventually(lambda: not broker.node.lifecycle.sessions)


async def test_who_waits_for_what_was_lost_with_its_connection_is_told() -> None:
    broker = broker_with()
    async with running(broker, "ours") as address, address.connect():
        await eventually(broker.get_clients)
        (client,) = broker.get_clients()
        (session,) = broker.node.lifecycle.sessions
        outbox: Any = session.outbox
        outbox._writer.transport.abort()  # of which is heard in a later turn of the loop
        assert await client.send("rows", 1)
        with pytest.raises(ClientGone):
            await client.drained()
        assert broker.get_stats().dropped == 1


@pytest.mark.parametrize("way", ["text", "bytes", "drained", "thread", "loop"])
async def test_who_waits_for_a_client_that_goes_is_told(way: str) -> None:
    broker = broker_with(ping_interval=0)

    async def wait(client: Client) -> Any:
        if way == "text":
            return await client.send("rows", 1, wait=True)
        if way == "bytes":
            return await client.send_bytes(b"1", wait=True)
        if way == "drained":
            return await client.drained()
        if way == "thread":
            return await asyncio.to_thread(client.sync.send, "rows", 1, wait=True)
        return await asyncio.to_thread(lambda: asyncio.run(client.send("rows", 1, wait=True)))

    async with running(broker, "ours") as address, stalled(address):
        await eventually(broker.get_clients)
        (client,) = broker.get_clients()
        with contextlib.suppress(ClientTimeout):
            while client.is_connected:
                await client.send("rows", "x" * 60_000)
                await client.drained(timeout=0.05)
        assert client.is_connected
        (session,) = broker.node.lifecycle.sessions
        waiting = asyncio.create_task(wait(client))
        outbox: Any = session.outbox
        await eventually(lambda: outbox._waiters)
        session.abort()
        with pytest.raises(ClientGone) as caught:
            async with asyncio.timeout(DEADLINE):
                await waiting
        assert caught.value.client_id == client.id
        await eventually(lambda: not broker.node.lifecycle.sessions)
        with pytest.raises(ClientGone):
            await wait(client)


async def test_threads_and_other_loops_wait_too() -> None:
    broker = broker_with()

    @broker.on("snapshot")
    def snapshot(client: Client) -> None:
        for _ in range(20):
            assert client.sync.send_bytes(PIECE, wait=True)
        assert client.sync.send("rows", None, wait=True)
        client.sync.drained()
        asyncio.run(client.send_bytes(PIECE, wait=True))
        client.sync.send_bytes(b"end", wait=True)

    @broker.on("deadlock")
    async def deadlock(client: Client) -> None:
        for call in (lambda: client.sync.send("x", wait=True), client.sync.drained):
            with pytest.raises(WouldDeadlockError, match="Client"):
                call()

    async with running(broker, "ours") as address:
        assert await read_slowly(address, until=b"end") == (21, 1)
        async with address.connect() as peer:
            assert (await peer.request("deadlock"))["event"] == "reply"


async def test_several_that_send_to_one_client_take_turns(kind: ServerKind) -> None:
    broker = broker_with()

    async def send(client: Client, name: int) -> None:
        for number in range(20):
            await client.send_bytes(bytes([name, number]) + PIECE, wait=True)

    @broker.on("snapshot")
    async def snapshot(client: Client) -> None:
        await asyncio.gather(*[send(client, name) for name in range(4)])

    seen: dict[int, list[int]] = {name: [] for name in range(4)}
    async with running(broker, kind) as address, address.connect(max_queue=1, compression=None) as peer:
        await peer.send("snapshot")
        behind = 0
        for _ in range(80):
            message = await peer.receive()
            seen[message[0]].append(message[1])
            counts = sorted(len(numbers) for numbers in seen.values())
            behind = max(behind, counts[-1] - counts[0])
            await asyncio.sleep(0.001)  # a pace, not a wait
    assert all(numbers == list(range(20)) for numbers in seen.values())
    assert behind <= 2


@pytest.mark.usefixtures("unhurried")
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the kernel does not tell what was taken")
async def test_a_slow_reader_is_not_taken_for_dead_as_its_pong_comes_late() -> None:
    # A busy machine holds its client up for longer than a moment, and that is not to be taken for death either.
    broker = broker_with(ping_interval=0.5, ping_timeout=1.0)
    closes: list[Close] = []

    @broker.on("snapshot")
    async def snapshot(client: Client) -> None:
        for _ in range(120):  # 2.6 s at its pace
            await client.send_bytes(PIECE, wait=True)
        await client.send_bytes(b"end", wait=True)

    @broker.on_disconnect
    async def gone(close: Close) -> None:
        closes.append(close)

    async with running(broker, "ours") as address, stalled(address) as slow:
        loop = asyncio.get_running_loop()
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)  # its pace is its own, not the kernel's
        await loop.sock_sendall(slow.socket, frame(0x81, b'{"event":"snapshot"}'))
        data = b""
        while b"end" not in data and not closes:  # a ping may come right behind it
            data = data[-10:] + await loop.sock_recv(slow.socket, 16 * 1024)
            await asyncio.sleep(0.005)  # a pace, not a wait
        assert closes == []
        # It never answered a ping; now that there is nothing more to read for it, that counts.
        await eventually(lambda: closes)
    assert (closes[0].code, closes[0].by) == (1006, "network")


async def test_a_message_larger_than_the_queue_leaves_room_for_others() -> None:
    broker = broker_with()

    @broker.on("snapshot")
    async def snapshot(client: Client) -> None:
        for number in range(3):
            await client.send_bytes(b"x" * 20 * QUEUE, wait=True)
            assert await broker.broadcast("news", number) == 1
        await client.send_bytes(b"end", wait=True)

    async with running(broker, "ours") as address:
        assert await read_slowly(address, until=b"end") == (3, 3)


async def test_stopping_ends_the_wait() -> None:
    broker = broker_with(ping_interval=0, drain_timeout=0.4)
    told: list[type[BaseException]] = []

    @broker.on_connect
    async def snapshot(client: Client) -> None:
        try:
            while True:
                await client.send("rows", "x" * 60_000, wait=True)
        except BaseException as error:
            told.append(type(error))
            raise

    async with running(broker, "ours") as address, stalled(address):
        await eventually(
            lambda: any(getattr(session.outbox, "_waiters", None) for session in broker.node.lifecycle.sessions)
        )
        async with asyncio.timeout(DEADLINE):
            await broker.stop()
    assert len(told) == 1
    assert issubclass(told[0], ClientGone | asyncio.CancelledError)
    assert broker.get_stats().errors == 0


async def test_that_a_client_went_or_was_too_slow_is_no_error_of_the_handler() -> None:
    broker = broker_with(ping_interval=0)

    @broker.on_connect
    async def snapshot(client: Client) -> None:
        while True:
            await client.send("rows", "x" * 60_000, wait=True, timeout=0.2)

    async with running(broker, "ours") as address, stalled(address):
        await eventually(lambda: broker.get_stats().slow_closes)
        for session in list(broker.node.lifecycle.sessions):
            session.abort(hurry=True)
        await eventually(lambda: not broker.node.lifecycle.sessions)
    assert broker.get_stats().errors == 0
