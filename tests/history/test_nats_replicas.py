"""Logs in a stream that several NATS servers keep: what is acknowledged outlives any of them, and reads are current."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.support import eventually
from tests.support.jetstream import STREAM, StoringNats, routed, storing
from velocity_ws.errors import SettingsError
from velocity_ws.history.entries import Entry
from velocity_ws.history.items import Limits, Log, Lookup, Query, Removal, granted
from velocity_ws.history.nats import NatsHistory
from velocity_ws.testing.history_engine import Keeper

LOG = Log("velocity.room.chat", Limits(100_000, 3600_000, 2**30))
PATIENCE = 2.0
"""Seconds after which a store that does not answer is closed and opened again, as nodes do."""
ANSWER = 30.0
"""Seconds within which a store has an answer that is asked once, while others are chosen to lead."""


def url_of(servers: Sequence[StoringNats], query: str = "?replicas=3") -> str:
    return "nats://" + ",".join(f"127.0.0.1:{server.port}" for server in servers) + query


@asynccontextmanager
async def keeper(url: str) -> AsyncIterator[Keeper]:
    found = Keeper(NatsHistory(url))
    try:
        await opened_again(found)  # a cluster that has begun may not know all of its servers yet
        yield found
    finally:
        await found.store.close()


async def opened_again(one: Keeper) -> None:
    async with asyncio.timeout(60):
        while True:
            await one.store.close()
            try:
                async with asyncio.timeout(PATIENCE):
                    return await one.connect()
            except OSError:
                await asyncio.sleep(0.05)


async def test_replicas_that_one_server_cannot_have(tmp_path: Path) -> None:
    async with storing(tmp_path) as server:
        with pytest.raises(SettingsError, match="replicas=3 needs a cluster"):
            await Keeper(NatsHistory(f"{server.url}?replicas=3")).connect()


async def test_a_stream_with_another_number_is_used_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with storing(tmp_path) as server:
        async with keeper(f"{server.url}?replicas=1") as one:
            await one.append(LOG, b"1")
        async with keeper(f"{server.url}?replicas=3") as one:
            assert len((await one.read(LOG)).entries) == 1
            await one.store.close()
            await one.connect()
    (said,) = [record for record in caplog.records if record.name == "velocity_ws.history"]
    assert said.levelno == logging.WARNING
    assert f"nats stream edit {STREAM} --replicas 3" in said.getMessage()


async def test_writers_of_one_log_do_not_keep_each_other_from_writing(tmp_path: Path) -> None:
    """The server refuses what meets another message under one guard, be it of one writer; all tried for ever."""
    async with routed(tmp_path) as servers, AsyncExitStack() as stack:
        urls = [url_of(servers[who:] + servers[:who]) for who in range(3)]
        keepers = [await stack.enter_async_context(keeper(url)) for url in urls]

        async def write(who: int) -> set[int]:
            appends = [await keepers[who].append_once(LOG, b"x", f"{who} {n}", b"d" * 16) for n in range(20)]
            assert not any(each.is_duplicate for each in appends)
            return {each.stamp.position.offset for each in appends}

        async with asyncio.timeout(20):  # it took half a minute, and takes half a second
            offsets = await asyncio.gather(*[write(who) for who in range(3)])
        assert set[int]().union(*offsets) == set(range(1, 61))


async def test_what_a_server_that_leads_no_longer_has_not_answered_is_sent_again(tmp_path: Path) -> None:
    """Nobody is told that another leads; what was sent meanwhile is not answered, be it stored or not."""
    async with routed(tmp_path) as servers, AsyncExitStack() as stack:
        urls = [url_of(servers[who:] + servers[:who]) for who in range(3)]
        keepers = [await stack.enter_async_context(keeper(url)) for url in urls]
        offsets: list[list[int]] = [[], [], []]
        is_over = False

        async def write(who: int) -> None:
            while not is_over:
                key = f"{who} {len(offsets[who])}"
                async with asyncio.timeout(ANSWER):
                    stamp = (await keepers[who].append_once(LOG, b"x", key, b"d" * 16)).stamp
                offsets[who].append(stamp.position.offset)

        async def all_write() -> None:
            least = min(map(len, offsets)) + 3
            await eventually(lambda: min(map(len, offsets)) >= least, within=2 * ANSWER)

        async with asyncio.TaskGroup() as writers:
            for who in range(3):
                writers.create_task(write(who))
            for _ in range(10):
                await all_write()
                await servers[0].ask(f"STREAM.LEADER.STEPDOWN.{STREAM}")
            await all_write()
            is_over = True
        assert sorted(itertools.chain(*offsets)) == list(range(1, sum(map(len, offsets)) + 1))


@pytest.mark.soak
async def test_nothing_acknowledged_is_lost_with_a_leader(tmp_path: Path) -> None:
    async with routed(tmp_path) as servers, keeper(url_of(servers)) as one:
        config = (await servers[0].ask(f"STREAM.INFO.{STREAM}"))["config"]
        assert config["num_replicas"] == 3
        acknowledged: list[Entry] = []
        is_over = False

        async def write(url: str, who: int) -> None:
            number = 0
            async with keeper(url) as mine:
                while not is_over:
                    try:
                        async with asyncio.timeout(PATIENCE):
                            acknowledged.extend(await mine.append(LOG, b"%d %d" % (who, number)))
                        number += 1
                    except OSError:
                        await opened_again(mine)

        urls = [url_of(servers[who % 3 :] + servers[: who % 3]) for who in range(4)]
        writing = [asyncio.create_task(write(url, who)) for who, url in enumerate(urls)]
        for _ in range(6):
            target = len(acknowledged) + 300
            while len(acknowledged) < target:
                await asyncio.sleep(0.01)
            alive = next(server for server in servers if server.process.returncode is None)
            leader = await alive.leader()
            victim = next(server for server in servers if server.name == leader)
            await victim.kill()
            target = len(acknowledged) + 300
            while len(acknowledged) < target:
                await asyncio.sleep(0.01)
            await victim.start()
            await victim.caught_up()
        is_over = True
        await asyncio.gather(*writing)
        await opened_again(one)
        found = granted((await one.store.read([Query(LOG, limit=100_000, max_bytes=2**30)]))[0])
    offsets = [entry.stamp.position.offset for entry in found.entries]
    assert offsets == list(range(1, found.top.position.offset + 1))
    by_offset = dict(zip(offsets, found.entries, strict=True))
    assert [by_offset[entry.stamp.position.offset] for entry in acknowledged] == acknowledged
    marks = [entry.stamp.position.mark for entry in found.entries]
    assert [entry.stamp.previous for entry in found.entries[1:]] == marks[:-1]


@pytest.mark.soak
async def test_what_another_server_has_taken_is_read(tmp_path: Path) -> None:
    """Each server answers what is read, and others than the leader may be behind: within 100 such rounds one was."""
    async with routed(tmp_path) as servers:
        urls = [url_of(servers[who:] + servers[:who]) for who in range(3)]
        async with keeper(urls[0]) as one, keeper(urls[1]) as two, keeper(urls[2]) as three:
            assert await two.store.kept("history.kinds") is None
            for number in range(1, 500):
                (entry,) = await one.append(LOG, b"%d" % number)
                for other in (two, three):
                    assert (await other.read(LOG, after=number - 1)).entries == [entry]
                granted((await one.store.remove([Removal(LOG, f"user {number}")]))[0])
                assert await two.store.removed([Lookup(LOG, f"user {number}")]) == [number]
                assert (await three.top(LOG)).position.revision == number
