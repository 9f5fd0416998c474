"""Stream losing: the part of the contract about connections that end and engines that are full. Knows no engine."""

from __future__ import annotations

import asyncio
import time

from velocity_ws.history.items import Refused
from velocity_ws.testing.engine import CLOSE_TIMEOUT
from velocity_ws.testing.history_engine import until
from velocity_ws.testing.listener import DEADLINE, refused
from velocity_ws.testing.stream_engine import EngineOfStreams, Scribe, text_of
from velocity_ws.testing.stream_writing import TAKEN, heard

__all__ = ["StreamLosingContract"]


class StreamLosingContract(EngineOfStreams):
    """Each call ends, with what is true; and a connection that has ended is told of once."""

    async def test_without_a_connection_nothing_is_done(self) -> None:
        pen = self.pen()
        never = Scribe(await self.store("contract"))
        for call in never.calls(pen):
            await refused(call)
        await never.store.close()
        never.store.release()
        async with self.scribe() as scribe:
            writer = self.pen()
            await scribe.begin(writer)
            await scribe.append(writer.say("text"))
            for _ in range(3):
                await self.closed(scribe)
            for call in scribe.calls(self.pen()):
                await refused(call)
            await scribe.connect()
            assert text_of(await scribe.read(writer)) == "text"
            assert await scribe.append(writer.say(" and more")) == [TAKEN]
            assert scribe.losses == []

    async def test_a_store_of_streams_that_is_gone_is_told_once(self) -> None:
        pen = self.pen()
        async with self.scribes(2) as (idle, busy):
            await busy.begin(pen)

            async def append_on_and_on() -> None:
                while True:
                    await busy.append(*[pen.say("x" * 100) for _ in range(10)])

            appending = asyncio.create_task(refused(append_on_and_on()))
            await idle.until(pen, lambda found: found is not None and found.pieces > 0)
            await self.kill()
            await until(lambda: idle.losses and busy.losses)
            await appending
            for scribe in (idle, busy):
                for call in scribe.calls(pen):
                    await refused(call)
                await self.closed(scribe)
                assert len(scribe.losses) == 1
                await refused(scribe.connect())

    async def test_a_frozen_store_of_streams_holds_nothing_up(self) -> None:
        pen, other = self.pen(), self.pen()
        async with self.scribe() as scribe:
            await scribe.begin(pen)
            await scribe.begin(other)
            await self.freeze()
            try:
                for call in scribe.calls(pen):
                    task = asyncio.create_task(call)
                    await asyncio.wait([task], timeout=0.05)
                    task.cancel()
                    await asyncio.wait([task], timeout=DEADLINE)
                    assert task.cancelled()
                await self.closed(scribe)
            finally:
                await self.thaw()
            assert scribe.losses == []
            async with asyncio.timeout(DEADLINE):
                await scribe.connect()
            assert await scribe.look(other.id) is not None  # one was deleted, if not at the time

    async def test_a_cancelled_call_leaves_the_store_of_streams_usable(self) -> None:
        async with self.scribe() as scribe:
            for steps in range(4):
                pen = self.pen()
                await scribe.begin(pen)
                append = pen.say("x" * 1000)
                for call in (scribe.append(append), scribe.read(pen), scribe.look(pen.id), scribe.renew(pen)):
                    task = asyncio.create_task(call)
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait([task], timeout=DEADLINE)
                    assert task.done()
                assert await scribe.append(append) == [TAKEN]  # which is done once, whether the other was or not
                assert await scribe.append(pen.say("last", "done"))
                found = await scribe.read(pen)
                assert (text_of(found), found.stream.pieces) == ("x" * 1000 + "last", 2)
            assert scribe.losses == []

    async def test_an_engine_that_is_full_keeps_and_publishes_nothing(self) -> None:
        pen, fresh = self.pen(), self.pen()
        async with self.scribe() as scribe, await self.listening(pen.topic) as listener:
            await scribe.begin(pen)
            first, second = pen.say("text"), pen.say("x" * 1000)
            await scribe.append(first)
            await self.fill()
            for results in (
                await scribe.store.append([second, second]),
                await scribe.store.begin([fresh.begin()]),
                await scribe.store.end([pen.end()]),
                await scribe.store.forbid([fresh.id], 1000),
            ):
                for result in results:
                    assert isinstance(result, Refused)
                    assert result.reason == "engine"
            assert isinstance(await refused(scribe.store.mark()), Refused)
            found = await scribe.read(pen)
            assert (text_of(found), found.stream.end, found.stream.pieces) == ("text", "", 1)
            assert await scribe.look(fresh.id) is None
            assert await heard(listener, pen.topic, 1) == [first.head + first.payload]
            assert scribe.losses == []

    async def closed(self, scribe: Scribe) -> None:
        """Close a store's connection, and check that it does not take long."""
        begin = time.monotonic()
        await scribe.store.close()
        assert time.monotonic() - begin < CLOSE_TIMEOUT
