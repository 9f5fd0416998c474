"""Messages that may be lost on purpose, sent by other nodes and emitters, to a client that does not read."""

from __future__ import annotations

import pytest

from tests.support import DEADLINE, eventually
from tests.support.nodes import KINDS, Node, engine_url, nodes
from tests.support.stalled import fill_up, stalled
from velocity_ws import Emitter

CHUNK = "x" * 16_000


async def arrived(node: Node, *, left_out: int, replaced: int) -> None:
    def has_all() -> bool:
        stats = node.broker.get_stats()
        return (stats.left_out, stats.replaced) == (left_out, replaced)

    await eventually(has_all)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_of_another_node_is_left_out_and_gets_the_newest(kind: str) -> None:
    async with engine_url(kind) as url, nodes(url, send_queue_size=256 * 1024) as (a, b):
        async with stalled(b.address) as slow:
            await eventually(b.broker.get_clients)
            client = b.broker.get_clients()[0]
            await b.broker.join_room(client.id, "x")
            sent = await fill_up(client)
            assert await client.send("waits")
            for number in range(30):
                await a.broker.to_room("x").send("cursor", number, volatile=True)
                await a.broker.to_client(client.id).send("cursor", ["ann", number, CHUNK], key="ann")
                await a.broker.to_rooms(["x", "y"]).send("cursor", ["bob", number], key="bob")
            await arrived(b, left_out=31, replaced=58)
            assert await client.send("cursor", ["ann", 30], key="ann"), "those of the own node are the same"
            await arrived(b, left_out=31, replaced=59)
            if kind == "memory":
                await a.broker.to_all().send("last")
            else:
                async with Emitter(url, timeout=DEADLINE) as emitter:
                    await emitter.to_room("x").send("cursor", 0, volatile=True)
                    await emitter.broadcast("cursor", ["bob", 30], key="bob")
                    await emitter.to_all().send("last")
                await arrived(b, left_out=32, replaced=60)
            frames = await slow.read_frames(until="last")
            bob = 29 if kind == "memory" else 30
            assert [frame["event"] for frame in frames[:sent]] == ["v"] * sent
            assert frames[sent:] == [
                {"event": "waits", "data": None},
                {"event": "cursor", "data": ["ann", 30]},
                {"event": "cursor", "data": ["bob", bob]},
                {"event": "last", "data": None},
            ]
            figures = await a.broker.cluster_stats()
            assert figures.total.replaced == b.broker.get_stats().replaced
            assert figures.total.dropped == 0
