"""Which server has which topic is asked of one that answers, be it none that the URL names."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support import DEADLINE
from tests.support.dead_network import network
from tests.support.engines import engine, free_port
from tests.support.redis_servers import cluster, tell
from tests.support.sharded import sharded
from velocity_ws.backplane import create_backplane, redis_slots
from velocity_ws.backplane.redis_slots import STAGGER, SlotFinder, Slots
from velocity_ws.history.redis import RedisHistory
from velocity_ws.testing.history_engine import Keeper
from velocity_ws.testing.listener import listening, refused


def test_a_topic_is_found_by_its_slot() -> None:
    slots = Slots([(0, "first"), (2000, "second"), (10_000, "third")])
    assert [slots.of(topic) for topic in ("user", "foo", "bar")] == ["second", "third", "second"]  # 5474, 12182, 5061
    with pytest.raises(ConnectionError, match="no connection"):
        Slots[str]([]).of("foo")


async def test_the_next_server_is_asked_where_one_is_gone_or_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster(tmp_path, 2) as (one, other), network(one.port) as silent, engine("valkey") as alone:
        silent.die()
        ports = [free_port(), silent.port, alone.port, one.port]
        finder = SlotFinder(f"valkey+cluster://{','.join(f'127.0.0.1:{port}' for port in ports)}")
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await finder.find() == [(0, ("127.0.0.1", one.port)), (8192, ("127.0.0.1", other.port))]
        assert loop.time() - began > STAGGER
        monkeypatch.setattr(redis_slots, "STAGGER", 60.0)
        async with asyncio.timeout(DEADLINE):
            await finder.find()  # asks the servers of the cluster first, which it knows by now
        await tell(one, "DELSLOTSRANGE", 0, 99)
        assert "16284 of 16384" in str(await refused(SlotFinder(f"redis+cluster://127.0.0.1:{one.port}").find()))


async def test_a_server_that_is_none_of_a_cluster_says_so() -> None:
    async with engine("valkey") as server:
        assert "cluster" in str(await refused(SlotFinder(f"redis+cluster://127.0.0.1:{server.port}").find()))


async def test_who_has_been_there_comes_back_though_the_server_of_the_url_is_gone(tmp_path: Path) -> None:
    async with sharded(tmp_path, 1, 1) as servers:
        primary, replica = servers.servers
        backplane = create_backplane(servers.url_of(primary))
        keeper = Keeper(RedisHistory(servers.url_of(primary)))
        async with listening(backplane, ["a"]) as listener:
            await keeper.connect()
            await primary.kill()
            await listener.loss()
            await backplane.close()
            await keeper.store.close()
            await replica.order("CLUSTER", "FAILOVER", "TAKEOVER")  # alone it has nobody to be chosen by
            await servers.promoted(replica)
            await listener.connect()
            await keeper.connect()
            await backplane.subscribe(["a"])
            await backplane.publish([("a", b"1")])
            assert await listener.messages(1) == [("a", b"1")]
        await keeper.store.close()
