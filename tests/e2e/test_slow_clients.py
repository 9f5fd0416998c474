"""Clients that do not read: bounded, told apart from the others, ended as configured."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.support import DEADLINE, Address, ServerKind, eventually, running, settings
from tests.support.configured import certified
from tests.support.stalled import stalled
from velocity_ws import Broker, Client, Close, Server

QUEUE = 256 * 1024
CHUNK = "x" * 16_000


async def fill(client: Client, *, chunks: int = 1000) -> int:
    """Send numbered messages until one is not queued; how many were."""
    for number in range(chunks):
        if not await client.send("n", [number, CHUNK]):
            return number
        await asyncio.sleep(0)
    raise AssertionError("it never filled")


async def test_disconnect_policy(kind: ServerKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.sessions.session.SLOW_CLOSE_TIMEOUT", 0.2)
    broker = Broker(settings(send_queue_size=QUEUE, ping_interval=0))
    ended: list[tuple[Client, Close]] = []

    @broker.on_disconnect
    async def gone(client: Client, close: Close) -> None:
        ended.append((client, close))

    async with running(broker, kind) as address, stalled(address) as slow, address.connect() as other:
        await eventually(lambda: len(broker.get_clients()) == 2)
        client = broker.get_clients()[0]
        await broker.join_room(client.id, "room")
        sent = await fill(client)
        assert not client.is_connected
        assert broker.get_rooms() == []
        assert await broker.broadcast("to the others") == 1
        assert await other.expect("to the others") is None
        # It cannot be told, so it is given up without an answer, and the end is known to the application.
        await eventually(lambda: ended)
        assert ended[0][0] is client
        assert ended[0][1].code == 1013
        assert ended[0][1].by == "server"
        assert "slow" in ended[0][1].reason
        stats = broker.get_stats()
        assert stats.slow_closes == 1
        assert stats.messages_sent + stats.dropped == sent + 2  # the one that was refused, and the other's
        await eventually(lambda: len(broker.node.lifecycle.sessions) == 1)
        slow.socket.close()


async def test_a_slow_client_that_reads_again_is_told_why(kind: ServerKind) -> None:
    broker = Broker(settings(send_queue_size=QUEUE))
    async with running(broker, kind) as address, stalled(address) as slow:
        await eventually(broker.get_clients)
        await fill(broker.get_clients()[0])
        frames = await slow.read_frames()
        numbers = [frame["data"][0] for frame in frames[:-1]]
        assert numbers == list(range(len(numbers)))
        assert frames[-1] == 1013
        await eventually(lambda: not broker.node.lifecycle.sessions)


async def test_drop_policy(kind: ServerKind) -> None:
    broker = Broker(settings(send_queue_size=QUEUE, slow_client="drop"))
    async with running(broker, kind) as address, stalled(address) as slow:
        await eventually(broker.get_clients)
        client = broker.get_clients()[0]
        sent = await fill(client)
        for _ in range(4):
            assert not await client.send("n", [-1, CHUNK])
        assert client.is_connected
        assert broker.get_stats().dropped == 5
        frames = await slow.read_frames(until="gap")
        assert [frame["data"][0] for frame in frames[:-1]] == list(range(sent))
        assert frames[-1] == {"event": "gap", "data": {"dropped": 5}}
        assert await client.send("after")
        assert (await slow.read_frames(until="after")) == [{"event": "after", "data": None}]
        assert broker.get_stats().slow_closes == 0
        # A second time is a second gap, told before what comes after it.
        sent = await fill(client)
        frames = await slow.read_frames(until="gap")
        assert len(frames) == sent + 1
        assert frames[-1]["data"] == {"dropped": 1}


async def test_a_message_larger_than_the_queue(kind: ServerKind) -> None:
    broker = Broker(settings(send_queue_size=1000))
    async with running(broker, kind) as address, address.connect(max_size=None) as peer:
        await eventually(broker.get_clients)
        client = broker.get_clients()[0]
        assert await client.send("big", "x" * 5_000_000)
        assert len(await peer.expect("big")) == 5_000_000
        assert client.is_connected


async def test_a_stalled_client_can_still_be_disconnected(kind: ServerKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.sessions.session.CLOSE_TIMEOUT", 0.2)
    broker = Broker(settings(send_queue_size=QUEUE, slow_client="drop"))
    ended: list[Close] = []

    @broker.on_disconnect
    async def gone(close: Close) -> None:
        ended.append(close)

    async with running(broker, kind) as address, stalled(address):
        await eventually(broker.get_clients)
        client = broker.get_clients()[0]
        await fill(client)
        await client.disconnect(4000, "enough")
        await eventually(lambda: ended)
    assert ended == [Close(4000, "enough", "server")]


@pytest.mark.usefixtures("unhurried")
async def test_stop_gives_a_stalled_client_up(kind: ServerKind) -> None:
    broker = Broker(settings(send_queue_size=QUEUE, slow_client="drop", drain_timeout=0.5))
    async with running(broker, kind) as address, stalled(address) as slow:
        await eventually(broker.get_clients)
        sent = await fill(broker.get_clients()[0])
        async with asyncio.timeout(2):
            await broker.stop()
        assert not broker.node.lifecycle.sessions
        stats = broker.get_stats()
        assert stats.messages_sent + stats.dropped == sent + 1
        slow.socket.close()


async def test_server_stop_leaves_no_socket_of_a_stalled_client() -> None:
    broker = Broker(settings(send_queue_size=QUEUE, slow_client="drop", drain_timeout=0.5, port=0))
    server = Server(broker)
    await server.start()
    async with stalled(Address(server.port)) as slow:
        await eventually(broker.get_clients)
        await fill(broker.get_clients()[0])
        async with asyncio.timeout(4):
            await server.stop()
        assert (await slow.read_frames())[-1] == 1006


@pytest.mark.usefixtures("unhurried")
async def test_keepalive_finds_a_dead_peer() -> None:
    broker = Broker(settings(ping_interval=0.1, ping_timeout=0.1, port=0))
    ended: list[Close] = []

    @broker.on_disconnect
    async def gone(close: Close) -> None:
        ended.append(close)

    async with Server(broker) as server, stalled(Address(server.port)), Address(server.port).connect():
        await eventually(lambda: len(broker.get_clients()) == 2)
        await eventually(lambda: ended)
        assert len(broker.get_clients()) == 1  # who answers pings stays
    assert ended[0].by == "network"


async def test_one_stalled_reader_never_delays_the_others(kind: ServerKind) -> None:
    broker = Broker(settings(send_queue_size=QUEUE))
    async with running(broker, kind) as address, stalled(address), address.connect() as other:
        await eventually(lambda: len(broker.get_clients()) == 2)
        for number in range(400):
            await broker.broadcast("n", [number, CHUNK])
            assert (await other.expect("n"))[0] == number
        assert len(broker.get_clients()) == 1


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("secure", [False, True])
def test_a_bounded_socket_buffer_lets_the_policy_act_sooner(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], secure: bool, tmp_path: Path
) -> None:
    async def scenario() -> int:
        options: Any = certified(tmp_path) if secure else {}
        broker = Broker(settings(port=0, socket_send_buffer="64KiB", send_queue_size=QUEUE))
        async with Server(broker, **options) as server:
            address = Address(server.port)
            context: ssl.SSLContext | None = None
            if secure:
                address.ws = f"wss://127.0.0.1:{server.port}"
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            async with address.connect(ssl=context, compression=None) as peer:
                peer.ws.transport.pause_reading()
                async with asyncio.timeout(DEADLINE):
                    while not broker.get_stats().slow_closes:
                        await broker.broadcast("chunk", CHUNK)
                        await asyncio.sleep(0)  # the turn in which it is written
                sent = broker.get_stats().bytes_sent
                peer.ws.transport.abort()
        return sent

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        # The kernel's own buffers took 3.9 MiB; what the client's side takes differs with how busy the machine is.
        assert runner.run(scenario()) < 2 * 1024 * 1024
