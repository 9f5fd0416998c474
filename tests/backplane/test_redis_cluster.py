"""A Redis Cluster: the contract on one shard, and on three what does not rest on an order across topics."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import eventually
from tests.support.nodes import nodes, person
from tests.support.redis_servers import OneShard, cluster, tell
from velocity_ws.backplane import create_backplane
from velocity_ws.testing import BackplaneContract


@pytest.mark.soak  # a server takes two seconds to believe that it is a cluster, and each test has its own
class TestOneShard(OneShard, BackplaneContract):
    """All that an engine owes."""


async def test_three_shards_carry_each_topic_in_order(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as servers:
        got: list[tuple[str, bytes]] = []
        one, other = [create_backplane(f"redis+cluster://127.0.0.1:{server.port}") for server in servers[:2]]
        lost: list[Exception] = []
        await one.connect(lambda topic, data: got.append((topic, data)), lost.append)
        await other.connect(lambda *_: None, lost.append)
        topics = [f"t.{number}" for number in range(30)]
        await one.subscribe(topics)
        await other.publish([(topics[number % 30], b"%d" % number) for number in range(3000)])
        await eventually(lambda: len(got) == 3000)
        for index, topic in enumerate(topics):
            assert [int(data) for found, data in got if found == topic] == list(range(index, 3000, 30))
        await one.unsubscribe(topics[:29])
        await other.publish([(topic, b"again") for topic in topics])
        await eventually(lambda: len(got) == 3001)
        assert got[-1] == (topics[29], b"again")
        await servers[2].kill()
        await eventually(lambda: len(lost) == 2)
        await one.close()
        await other.close()


async def test_two_nodes_on_three_shards(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as servers:
        url = f"valkey+cluster://127.0.0.1:{servers[0].port}"
        async with nodes(url, backplane_timeout=5) as (a, b), person(b, "ann", "x") as (peer, _):
            for number in range(100):
                await a.broker.to_room("x").send("n", number)
            await a.broker.to_user("ann").send("end")
            got = [await peer.receive() for _ in range(101)]
            assert [message["data"] for message in got if message["event"] == "n"] == list(range(100))
            assert len(await a.broker.members("x")) == 1


async def test_a_cluster_that_lacks_slots_is_none(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as (server,):
        await tell(server, "DELSLOTSRANGE", 0, 99)
        backplane = create_backplane(f"redis+cluster://127.0.0.1:{server.port}")
        with pytest.raises(ConnectionError, match="16284 of 16384"):
            await backplane.connect(lambda *_: None, lambda _: None)
        await backplane.close()
