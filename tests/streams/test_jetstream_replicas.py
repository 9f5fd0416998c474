"""Streams that several NATS servers keep: what is acknowledged outlives any of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support import eventually
from tests.support.jetstream import StoringNats, routed
from velocity_ws.backplane import Backplane, create_backplane
from velocity_ws.history.items import granted
from velocity_ws.streams.base import StreamStore
from velocity_ws.streams.items import Append, Times, Written
from velocity_ws.streams.nats import NatsStreams
from velocity_ws.testing import StreamContract
from velocity_ws.testing.stream_engine import PREFIX, Scribe, text_of
from velocity_ws.testing.stream_pen import HOUR, LONG, Pen

STREAM = "velocity-streams"
PATIENCE = 2.0
"""Seconds after which a store that does not answer is closed and opened again, as nodes do."""
ANSWER = 30.0
"""Seconds within which a store has an answer that is asked once, while others are chosen to lead."""


def url_of(servers: Sequence[StoringNats], first: int = 0) -> str:
    """The URL of servers, of which one is tried first."""
    ordered = [*servers[first:], *servers[:first]]
    return "nats://" + ",".join(f"127.0.0.1:{server.port}" for server in ordered) + "?replicas=3"


@pytest.mark.soak
class TestThree(StreamContract):
    """Each store of a test begins at another server."""

    @pytest_asyncio.fixture(autouse=True)
    async def start(self, tmp_path: Path) -> AsyncIterator[None]:
        self.numbers = itertools.count()
        async with routed(tmp_path) as self.servers, scribe_at(url_of(self.servers)):
            yield

    async def store(self, prefix: str) -> StreamStore:
        return NatsStreams(url_of(self.servers, next(self.numbers) % 3), prefix=prefix)

    async def backplane(self) -> Backplane:
        return create_backplane(url_of(self.servers, next(self.numbers) % 3))

    async def fill(self) -> None:
        await self.servers[0].fill(STREAM)


@asynccontextmanager
async def scribe_at(url: str) -> AsyncIterator[Scribe]:
    found = Scribe(NatsStreams(url, prefix=PREFIX))
    try:
        await opened_again(found)  # a cluster that has begun may not know all of its servers yet
        yield found
    finally:
        await found.store.close()


async def opened_again(one: Scribe) -> None:
    async with asyncio.timeout(60):
        while True:
            await one.store.close()
            try:
                async with asyncio.timeout(PATIENCE):
                    return await one.connect()
            except OSError:
                await asyncio.sleep(0.05)


async def test_what_a_server_that_leads_no_longer_has_not_answered_is_sent_again(tmp_path: Path) -> None:
    """Nobody is told that another leads; what was sent meanwhile is not answered, be it stored or not."""
    async with routed(tmp_path) as servers, AsyncExitStack() as stack:
        scribes = [await stack.enter_async_context(scribe_at(url_of(servers, who))) for who in range(3)]
        pens = [Pen(f"answer {who}", "velocity.room.chat", times=Times(1, HOUR, HOUR)) for who in range(3)]
        for scribe, pen in zip(scribes, pens, strict=True):
            await scribe.begin(pen)
        said: list[list[str]] = [[], [], []]
        is_over = False

        async def write(who: int) -> None:
            while not is_over:
                async with asyncio.timeout(ANSWER):
                    text = f"{who} {len(said[who])} "
                    assert await scribes[who].append(pens[who].say(text)) == [Written(is_taken=True)]
                said[who].append(text)
                if len(said[who]) % 5 == 0:
                    assert await scribes[who].renew(pens[who], LONG) == Written(is_taken=True)

        async def all_write() -> None:
            least = min(map(len, said)) + 3
            await eventually(lambda: min(map(len, said)) >= least, within=2 * ANSWER)

        async with asyncio.TaskGroup() as writers:
            for who in range(3):
                writers.create_task(write(who))
            for _ in range(10):
                await all_write()
                await servers[0].ask(f"STREAM.LEADER.STEPDOWN.{STREAM}")
            await all_write()
            is_over = True
        for who, pen in enumerate(pens):
            assert text_of(await scribes[(who + 1) % 3].read(pen)) == "".join(said[who])
            ended = await scribes[(who + 2) % 3].end(pen.end())
            assert ended is not None
            assert (ended.end, ended.pieces) == ("cancelled", len(said[who]) + 1)


@pytest.mark.soak
async def test_no_piece_that_was_acknowledged_is_lost_with_a_leader(tmp_path: Path) -> None:
    async with routed(tmp_path) as servers, scribe_at(url_of(servers)) as one:
        acknowledged: dict[int, list[bytes]] = {who: [] for who in range(4)}
        is_over = False

        async def write(who: int) -> None:
            pen = pens[who]
            async with scribe_at(url_of(servers, who % 3)) as mine:
                await until_done(mine, lambda: mine.begin(pen))
                while not is_over:
                    append = pen.say(f"{who} {pen.number} ")

                    async def say(append: Append = append) -> object:
                        return await mine.append(append)

                    assert await until_done(mine, say) == [Written(is_taken=True)]
                    acknowledged[who].append(append.payload)

        pens = [Pen(f"answer {who}", "velocity.room.chat") for who in range(4)]
        writing = [asyncio.create_task(write(who)) for who in range(4)]

        async def all_write() -> None:
            least = min(map(len, acknowledged.values())) + 100
            async with asyncio.timeout(60):
                while min(map(len, acknowledged.values())) < least:
                    await asyncio.sleep(0.01)
                    assert not any(each.done() for each in writing)

        for _ in range(6):
            await all_write()
            alive = next(server for server in servers if server.process.returncode is None)
            leader = await alive.leader(STREAM)
            victim = next(server for server in servers if server.name == leader)
            await victim.kill()
            await all_write()
            await victim.start()
            await victim.caught_up(STREAM)
        is_over = True
        await asyncio.gather(*writing)
        await opened_again(one)
        for who, pen in enumerate(pens):
            found = await one.read(pen, 0, 2**30)
            assert found.payloads == acknowledged[who]
            assert granted((await one.store.look([pen.id]))[0]) is not None


async def until_done(scribe: Scribe, call: Callable[[], Awaitable[object]]) -> object:
    """What a call returns, which is asked again, on another connection, where it fails."""
    async with asyncio.timeout(60):
        while True:
            try:
                async with asyncio.timeout(PATIENCE):
                    return await call()
            except OSError:
                await opened_again(scribe)
