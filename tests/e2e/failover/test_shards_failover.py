"""A Redis Cluster fails over: shards whose primaries are asked to go, killed and frozen, and slots that move."""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path

import pytest
from redis.crc import key_slot

from tests.support import eventually
from tests.support.engines import ENGINES
from tests.support.failing_over import FAILOVERS, NODES, SEED, FailingOver, Mend, failing_over
from tests.support.say import Say
from tests.support.sharded import NODE_TIMEOUT, Server, Sharded, sharded

pytestmark = [pytest.mark.soak, pytest.mark.timeout(120 + 60 * FAILOVERS)]
KINDS = [kind for kind in ("valkey", "redis") if kind in ENGINES]
SHARDS = 3
MOVES = max(1, FAILOVERS // 4)
ASKED_FOR = 2.0
"""Seconds after which every node hears again, where a replica was asked to become the primary, or a slot has moved."""
KILLED = NODE_TIMEOUT / 1000 * 3 + 2.0
"""The same where a primary is gone: until the others have noticed and chosen another one, and two seconds more."""
MIGRATION = float(os.environ.get("MIGRATION_SECONDS", "0.2"))
"""Seconds that a slot is on its way before its keys are, and as long again behind them."""


class Disturbed:
    """A cluster, and what happens to it.

    Attributes:
        longest: seconds that a slot was on its way at most, for which rooms with history wait.
    """

    def __init__(self, servers: Sharded) -> None:
        self.servers = servers
        self.longest = 0.0
        self.probed = [servers.name_on(number, SHARDS, kind) for kind in ("plain:p", "chat:p") for number in range(3)]
        self._chance = random.Random(SEED)
        self._numbers = list[int]()

    @property
    def urls(self) -> list[str]:
        """What each node is given: one server alone, all of them, and one that is a replica at first."""
        every = self.servers.servers
        return [self.servers.url_of(every[0]), self.servers.url, self.servers.url_of(every[-1])]

    async def shard(self) -> tuple[Server, Server]:
        """The primary of a shard, and its replica; of one shard after the other."""
        self._numbers = self._numbers or self._chance.sample(range(SHARDS), SHARDS)
        primary = await self.servers.primary_of(topic(self.probed[self._numbers.pop()]))
        return primary, await self.servers.replica_of(primary)

    async def replica_is_asked_to_take_over(self) -> Mend:
        _, replica = await self.shard()
        await self.servers.promote(replica)
        return self.servers.settled

    async def primary_is_killed(self) -> Mend:
        primary, replica = await self.shard()
        await primary.kill()
        await asyncio.wait_for(self.servers.promoted(replica), 30)

        async def mend() -> None:
            await primary.start()
            await self.servers.settled()

        return mend

    async def primary_is_frozen(self) -> Mend:
        primary, replica = await self.shard()
        primary.freeze()
        await asyncio.wait_for(self.servers.promoted(replica), 30)

        async def mend() -> None:
            primary.thaw()
            await self.servers.settled()

        return mend

    async def slot_moves(self) -> Mend:
        """That of a room in which much is said, to another shard."""
        name = topic(self._chance.choice(self.probed))
        source = await self.servers.primary_of(name)
        others = [await self.servers.primary_of(topic(room)) for room in self.probed]
        target = self._chance.choice(
            sorted({each for each in others if each is not source}, key=lambda each: each.port)
        )
        began = time.monotonic()
        await self.servers.move(key_slot(name.encode()), source, target, MIGRATION)
        self.longest = max(self.longest, time.monotonic() - began)
        return self.servers.settled


async def warm(found: FailingOver) -> None:
    """Wait until everyone has heard every voice: what a first message came behind, nobody knows."""
    await eventually(
        lambda: all(
            len(books.said) >= NODES and books.hears(dict.fromkeys(books.said, 3)) for books in found.plain.values()
        ),
        within=60,
    )


def topic(room: str) -> str:
    """That of a room."""
    return f"velocity.room.{room.replace(':', '=3A')}"


@pytest.mark.parametrize("kind", KINDS)
async def test_replicas_that_are_asked_to_take_over_and_slots_that_move(kind: str, tmp_path: Path, say: Say) -> None:
    async with sharded(tmp_path, SHARDS, kind=kind) as servers:
        disturbed = Disturbed(servers)
        async with failing_over(disturbed.urls, probed=disturbed.probed) as found:
            await warm(found)
            await found.fails_over([disturbed.replica_is_asked_to_take_over])
            await found.fails_over([disturbed.slot_moves], MOVES)
            delivered, told = await found.ends()
    say(report(kind, found, delivered, told))
    assert told == 0
    for each in found.failovers:
        on_its_way = disturbed.longest if each.name == "slot_moves" else 0.0
        assert max(each.plain, each.chat) < ASKED_FOR + on_its_way, each


@pytest.mark.parametrize("kind", KINDS)
async def test_primaries_that_are_killed_and_frozen(kind: str, tmp_path: Path, say: Say) -> None:
    async with sharded(tmp_path, SHARDS, kind=kind) as servers:
        disturbed = Disturbed(servers)
        async with failing_over(disturbed.urls, probed=disturbed.probed, keeps_all=False) as found:
            await warm(found)
            await found.fails_over([disturbed.primary_is_killed])
            await found.fails_over([disturbed.primary_is_frozen], MOVES)
            delivered, told = await found.ends()
    say(report(kind, found, delivered, told))
    for each in found.failovers:
        assert max(each.plain, each.chat) < KILLED, each


def report(kind: str, found: FailingOver, delivered: int, told: int) -> str:
    """What it cost."""
    return f"{kind} cluster; with history {delivered} came, and {told} were told lost\n{found}"
