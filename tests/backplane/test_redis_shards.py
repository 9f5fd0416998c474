"""A cluster that changes while its connection goes on: slots that move, replicas that take over, shards that come."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.crc import key_slot

from tests.support import eventually
from tests.support.engines import ENGINES
from tests.support.sharded import Sharded, sharded
from velocity_ws.backplane import create_backplane
from velocity_ws.backplane.base import Moving
from velocity_ws.backplane.redis_shards import COMPARE_INTERVAL, ROUNDS
from velocity_ws.backplane.redis_watch import INTERVAL
from velocity_ws.history.base import MovingStore
from velocity_ws.history.items import Append, Limits, Log, Refused
from velocity_ws.history.redis import RedisHistory
from velocity_ws.testing import Listener
from velocity_ws.testing.history_engine import Keeper
from velocity_ws.testing.listener import listening

pytestmark = pytest.mark.usefixtures("comparing")
KINDS = [kind for kind in ("valkey", "redis") if kind in ENGINES]
FAILED_OVER = 20.0
"""Seconds in which servers choose another primary, on a machine that does other things."""
PATIENT = ("--cluster-node-timeout", "3000")
"""Options of servers that are not to take another one for gone which is held up for a second."""
PROMPTLY = 5.0
"""Seconds in which a topic is heard again where it is now, on a machine that does other things."""


@pytest.fixture
def comparing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are asked all the time whom they take for the cluster's, also while connections are opened and left."""
    monkeypatch.setattr("velocity_ws.backplane.redis_shards.COMPARE_INTERVAL", 0.001)


class Talk:
    """What one backplane says to topics all the time, and another hears.

    Attributes:
        said: how often all topics were published to.
        missed: the topics on which something may have been missed, as the other one tells.
    """

    def __init__(self, listener: Listener, speaker: Listener, topics: Collection[str]) -> None:
        self.said = 0
        self.missed: list[str] = []
        self._listener, self._speaker = listener, speaker
        self._topics = topics
        self._is_over = False
        assert isinstance(listener.backplane, Moving)
        listener.backplane.on_missed = self.missed.extend

    async def talk(self) -> None:
        for number in itertools.count():
            if self._is_over:
                break
            await self._speaker.backplane.publish([(topic, b"%d" % number) for topic in self._topics])
            self.said = number + 1
            await asyncio.sleep(0.002)

    async def hears_more(self) -> None:
        """Wait until all topics are heard anew."""
        said = self.said
        await eventually(lambda: all(self._last(topic) >= said for topic in self._topics), within=PROMPTLY)

    def heard(self, topic: str) -> list[int]:
        return [int(payload) for found, payload in self._listener.received if found == topic]

    def _last(self, topic: str) -> int:
        return next((int(data) for found, data in reversed(self._listener.received) if found == topic), -1)

    def ends(self) -> None:
        self._is_over = True

    def is_as_told(self) -> None:
        """All came once and in order, but for what may be missing of topics of which that was told."""
        for topic in self._topics:
            heard = self.heard(topic)
            assert heard == sorted(set(heard))
            if topic not in self.missed:
                assert heard == list(range(heard[-1] + 1))


@asynccontextmanager
async def talking(servers: Sharded, topics: Collection[str]) -> AsyncIterator[Talk]:
    """Two backplanes on a cluster, of which one talks and one hears; neither loses its connection."""
    async with listening(create_backplane(servers.url), topics) as listener:
        async with listening(create_backplane(servers.url)) as speaker:
            talk = Talk(listener, speaker, topics)
            task = asyncio.create_task(talk.talk())
            try:
                await talk.hears_more()
                yield talk
                await talk.hears_more()
            finally:
                talk.ends()
                await task
            talk.is_as_told()
            assert listener.losses == speaker.losses == []


def topics_of(servers: Sharded, shards: int) -> list[str]:
    return [f"velocity.room.{servers.name_on(number, shards, 'r')}" for number in range(shards)]


async def test_a_slot_that_moves_takes_its_topics_along_and_all_others_go_on(tmp_path: Path) -> None:
    async with sharded(tmp_path, 2, 0, "valkey", *PATIENT) as servers:
        topics = topics_of(servers, 2)
        one, other = servers.servers
        async with talking(servers, topics) as talk, listening(create_backplane(servers.url)) as late:
            slot = key_slot(topics[0].encode())
            await servers.move(slot, one, other)
            await talk.hears_more()
            assert talk.missed == [topics[0]]
            await late.backplane.subscribe([f"{{{topics[0]}}}.{number}" for number in range(3)])
            await late.backplane.unsubscribe([f"{{{topics[0]}}}.1"])
            for number in range(3):
                await late.backplane.publish([(f"{{{topics[0]}}}.{number}", b"1")])
            assert len(await late.messages(2)) == 2
            await servers.move(slot, other, one)
            await talk.hears_more()
            assert talk.missed == [topics[0]] * 2
            assert late.losses == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_shard_that_comes_gets_slots(kind: str, tmp_path: Path) -> None:
    async with sharded(tmp_path, 1, 0, kind, *PATIENT) as servers:
        topics = [f"velocity.room.{number}" for number in range(20)]
        async with talking(servers, topics) as talk:
            (one,) = servers.servers
            other = await servers.add()
            await servers.meet()
            moved = topics[:10]
            for slot in {key_slot(topic.encode()) for topic in moved}:
                await servers.move(slot, one, other)
            await talk.hears_more()
            assert sorted(talk.missed) == sorted(moved)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_replica_that_takes_over_is_followed_by_all_who_are_there(kind: str, tmp_path: Path) -> None:
    async with sharded(tmp_path, 1, 1, kind, *PATIENT) as servers:
        primary, replica = servers.servers
        quiet, keeper = create_backplane(servers.url), Keeper(RedisHistory(servers.url))
        async with talking(servers, topics_of(servers, 1)) as talk, listening(quiet) as silent:
            moved: list[str] = []
            assert isinstance(keeper.store, MovingStore)
            keeper.store.on_moved = lambda: moved.append("moved")
            await keeper.connect()
            await servers.promote(replica)
            await eventually(
                lambda: talk.missed, within=PROMPTLY
            )  # a server that is a replica now passes on for a while
            await talk.hears_more()
            assert talk.missed == topics_of(servers, 1)

            async def are_there() -> bool:
                clients = await primary.order("CLIENT", "LIST", "TYPE", "NORMAL")
                return "velocity-ws" in clients.decode() + (await primary.order("CLIENT", "LIST")).decode()

            async with asyncio.timeout(2 * INTERVAL + PROMPTLY):
                while await are_there():  # which who has nothing there sees by looking
                    await asyncio.sleep(0.02)
            assert silent.losses == keeper.losses == []
            assert moved == ["moved"]
        await keeper.store.close()


async def test_a_primary_that_is_cut_off_from_the_other_servers_is_left(tmp_path: Path) -> None:
    async with sharded(tmp_path, 3, 1, "valkey", "--enable-debug-command", "yes") as servers:
        (topic, *_) = topics_of(servers, 3)
        primary = await servers.primary_of(topic)
        replica = await servers.replica_of(primary)
        keeper, log = Keeper(RedisHistory(servers.url_of(primary))), Log(topic, Limits(100, 600_000, 1024**2))
        async with listening(create_backplane(servers.url_of(primary)), [topic]) as listener:
            await keeper.connect()
            await primary.order("DEBUG", "DROP-CLUSTER-PACKET-FILTER", -2)
            await asyncio.wait_for(servers.promoted(replica), FAILED_OVER)
            assert await primary.role() == "master"  # and it takes what is published there
            async with listening(create_backplane(servers.url_of(primary))) as speaker:

                async def is_heard() -> bool:
                    await speaker.backplane.publish([(topic, b"1")])
                    await asyncio.sleep(0.02)
                    return bool(listener.received)

                async with asyncio.timeout(COMPARE_INTERVAL + PROMPTLY):
                    while not await is_heard():
                        continue
            async with asyncio.timeout(COMPARE_INTERVAL + PROMPTLY):
                while keeper.losses or isinstance((await keeper.store.append([Append(log, b"1")]))[0], Refused):
                    await keeper.store.close()
                    keeper.losses.clear()
                    await keeper.connect()
            assert listener.losses == []
        await keeper.store.close()


async def test_servers_that_do_not_agree_end_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.backplane.redis_shards.ROUNDS", 3)
    assert ROUNDS > 3
    async with sharded(tmp_path, 2, 0, "valkey", *PATIENT) as servers:
        (topic, _), (one, other) = topics_of(servers, 2), servers.servers
        async with listening(create_backplane(servers.url), [topic]) as listener:
            await one.order("CLUSTER", "SETSLOT", key_slot(topic.encode()), "MIGRATING", other.id)
            await one.order("CLUSTER", "SETSLOT", key_slot(topic.encode()), "NODE", other.id)  # and the other knows not
            assert "do not agree" in str(await listener.loss())
