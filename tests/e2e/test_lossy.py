"""Messages that may be lost on purpose, for clients that do not read: what is left out, replaced, and counted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import ServerKind, eventually, running, settings
from tests.support.stalled import fill_up, stalled
from velocity_ws import Broker, Client, InvalidNameError

CHUNK = "x" * 16_000


async def test_volatile_messages_fill_no_queue(kind: ServerKind) -> None:
    broker = Broker(settings(send_queue_size=256 * 1024))
    async with running(broker, kind) as address, stalled(address) as slow, address.connect() as other:
        await eventually(lambda: len(broker.get_clients()) == 2)
        client = broker.get_clients()[0]
        await broker.join_room(client.id, "room")
        await broker.join_room(broker.get_clients()[1].id, "room")
        sent = await fill_up(client)
        for number in range(100):
            assert await broker.to_room("room").send("cursor", [number, CHUNK], volatile=True) == 1
            assert await other.expect("cursor") == [number, CHUNK]
            assert await broker.to_room("room").send_bytes(b"frame", volatile=True) == 1
            assert await other.receive() == b"frame"
        stats = broker.get_stats()
        assert (stats.left_out, stats.dropped, stats.slow_closes) == (201, 0, 0)
        assert await client.send("last")
        frames = await slow.read_frames(until="last")
        assert [frame["data"][0] for frame in frames[:-1]] == list(range(sent)), "no gap, and nothing after"
        assert await client.send("again", volatile=True)
        assert (await slow.read_frames(until="again"))[-1] == {"event": "again", "data": None}


async def test_the_newest_message_of_a_key_is_what_a_slow_client_gets(kind: ServerKind) -> None:
    broker = Broker(settings(send_queue_size=256 * 1024))
    async with running(broker, kind) as address, stalled(address) as slow:
        await eventually(broker.get_clients)
        client = broker.get_clients()[0]
        sent = await fill_up(client)
        assert await client.send("waits")
        for number in range(100):
            assert await broker.broadcast("cursor", ["ann", number, CHUNK], key="ann") == 1
            assert await client.send("cursor", ["bob", number], key="bob")
            assert await broker.to_client(client.id).send_bytes(f"{number}".encode(), key="ann") == 1
        stats = broker.get_stats()
        assert (stats.replaced, stats.dropped, stats.slow_closes, stats.left_out) == (297, 0, 0, 1)
        assert await client.send("snapshot")
        assert await client.send("cursor", ["ann", 100], key="ann")
        assert await client.send("last")
        frames = await slow.read_frames(until="last")
        bob = {"event": "cursor", "data": ["bob", 99]}
        ann = {"event": "cursor", "data": ["ann", 100]}
        names: list[Any] = [frame if frame["event"] == "cursor" else frame["event"] for frame in frames[sent:]]
        assert names == ["waits", bob, "snapshot", ann, "last"]
        stats = broker.get_stats()
        assert stats.messages_sent == sent + 6, "with one binary message"
        assert stats.messages_sent + stats.replaced + stats.left_out == sent + 1 + 1 + 300 + 3


async def test_a_key_means_something_else_in_each_room_of_a_kind(kind: ServerKind) -> None:
    broker = Broker(settings(send_queue_size=256 * 1024))
    broker.rooms("doc:{doc_id}")
    async with running(broker, kind) as address, stalled(address) as slow:
        await eventually(broker.get_clients)
        client = broker.get_clients()[0]
        for room in ("doc:1", "doc:2", "plain"):
            await broker.join_room(client.id, room)
        await fill_up(client)
        assert await client.send("waits")
        for number in range(10):
            for room in ("doc:1", "doc:2", "plain"):
                await broker.to_room(room).send("cursor", number, key="ann")
            await broker.broadcast("cursor", number, key="ann")  # which no more than "plain" says where it was sent
        assert broker.get_stats().replaced == 3 * 9 + 10
        assert await client.send("last")
        frames = await slow.read_frames(until="last")
        assert [frame.get("room") for frame in frames if frame["event"] == "cursor"] == ["doc:1", "doc:2", None]
        assert [frame["data"] for frame in frames if frame["event"] == "cursor"] == [9, 9, 9]


async def test_a_client_that_goes_takes_what_waits_with_a_key(kind: ServerKind) -> None:
    broker = Broker(settings(send_queue_size=256 * 1024))
    async with running(broker, kind) as address:
        async with stalled(address) as slow:
            await eventually(broker.get_clients)
            client = broker.get_clients()[0]
            sent = await fill_up(client)
            assert await client.send("cursor", 1, key="ann")
            assert await client.send("cursor", 2, key="ann")
            slow.socket.close()
        await eventually(lambda: not broker.node.lifecycle.sessions)
        assert not await client.send("cursor", 3, key="ann")
        assert not await client.send("cursor", 3, volatile=True)
        stats = broker.get_stats()
        assert (stats.replaced, stats.left_out) == (1, 1)
        assert stats.messages_sent + stats.dropped == sent + 3


async def test_what_cannot_be_is_refused() -> None:
    broker = Broker(settings())
    async with running(broker, "ours") as address, address.connect() as peer:
        await eventually(broker.get_clients)
        client = broker.get_clients()[0]
        for target in (client, broker.to_all(), broker.to_room("x"), broker.to_user("ann")):
            with pytest.raises(TypeError, match="either volatile=True or a key"):
                await target.send("e", volatile=True, key="k")
            with pytest.raises(TypeError, match="either volatile=True or a key"):
                await target.send_bytes(b"", volatile=True, key="k")
            keys: list[Any] = ["", "x" * 257, 5, "\ud800"]
            for key in keys:
                with pytest.raises(InvalidNameError):
                    await target.send("e", key=key)
        ways: list[dict[str, Any]] = [{"volatile": True}, {"key": "k"}]
        for how in ways:
            with pytest.raises(TypeError, match="wait=True"):
                await client.send("e", wait=True, **how)
            with pytest.raises(TypeError, match="wait=True"):
                await client.send_bytes(b"", wait=True, **how)
        assert await client.send("fine", volatile=False, key=None)
        assert await peer.expect("fine") is None, "and nothing before it"


async def test_threads_send_them_too() -> None:
    broker = Broker(settings())

    @broker.on("say")
    def say(client: Client) -> None:
        client.sync.send("a", volatile=True)
        client.sync.send("b", key="k")
        client.sync.send_bytes(b"c", volatile=True)
        client.sync.send_bytes(b"d", key="k")
        broker.sync.broadcast("e", volatile=True)
        broker.sync.broadcast_bytes(b"f", key="k")
        broker.sync.to_client(client.id).send("g", key="k")
        broker.sync.to_client(client.id).send_bytes(b"h", volatile=True)

    async with running(broker, "ours") as address, address.connect() as peer:
        await peer.send("say")
        heard = [await peer.receive() for _ in range(8)]
        assert [one if isinstance(one, bytes) else one["event"].encode() for one in heard] == [
            *(b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h")
        ]
