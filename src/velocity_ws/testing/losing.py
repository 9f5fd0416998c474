"""Losing: the part of the contract about engines that lose, go back or are full, and connections that end.

Knows no engine.
"""

from __future__ import annotations

import asyncio
import time

from velocity_ws.history.items import Append, Query, Refused, Removal, granted
from velocity_ws.testing.appending import SAME, heard
from velocity_ws.testing.engine import CLOSE_TIMEOUT
from velocity_ws.testing.history_engine import EngineOfHistory, Keeper, until
from velocity_ws.testing.listener import DEADLINE, refused
from velocity_ws.testing.reading import removed

__all__ = ["LosingContract"]


class LosingContract(EngineOfHistory):
    """What an engine has lost is never taken for nothing missed; and each call ends, with what is true."""

    async def test_an_engine_that_begins_empty(self) -> None:
        log = self.log()
        async with self.keeper() as keeper:
            entries = await keeper.append(log, b"1", b"2")
            await self.restart_empty()
            await self.open_again(keeper)
            assert await keeper.recover(log, entries[0].stamp.position) == "epoch"
            top = await keeper.top(log)
            assert top.position.offset == 0
            (first,) = await keeper.append(log, b"3")
            assert first.stamp.previous == top.position.mark
            assert await keeper.recover(log, entries[0].stamp.position) == "epoch"
            assert await keeper.recover(log, top.position) == [b"3"]

    async def test_an_engine_that_goes_back(self) -> None:
        log = self.log()
        async with self.keeper() as keeper:
            entries = await keeper.append(log, *(b"%d" % number for number in range(1, 101)))
            await self.save()
            lost = await keeper.append(log, *(b"lost %d" % number for number in range(101, 106)))
            await self.rewind()
            await self.open_again(keeper)
            assert await keeper.recover(log, lost[-1].stamp.position) == "rewound"
            assert await keeper.recover(log, entries[-1].stamp.position) == []
            await keeper.append(log, *(b"%d" % number for number in range(101, 111)))
            for entry in lost:
                assert await keeper.recover(log, entry.stamp.position) == "rewound"
            assert await keeper.recover(log, entries[98].stamp.position) == [b"%d" % each for each in range(100, 111)]

    async def test_the_meta_lost_alone(self) -> None:
        log = self.log()
        async with self.keeper() as keeper:
            entries = await keeper.append(log, b"1", b"2", b"3")
            await keeper.append_once(log, b"4", "key", SAME)
            await self.lose_meta(log)
            (fresh,) = await keeper.append(log, b"5")
            assert fresh.stamp.position.offset == 1
            assert fresh.stamp.position.epoch != entries[0].stamp.position.epoch
            assert (await keeper.read(log)).entries == [fresh]
            assert await keeper.recover(log, entries[0].stamp.position) == "epoch"
            again = await keeper.append_once(log, b"4", "key", SAME)
            assert (again.is_duplicate, again.stamp.position.offset) == (False, 2)
            await self.lose_meta(log)
            found = await keeper.read(log)
            assert (found.entries, found.top.position.offset) == ([], 0)

    async def test_the_entries_lost_alone(self) -> None:
        log = self.log()
        async with self.keeper() as keeper:
            entries = await keeper.append(log, b"1", b"2", b"3")
            await self.lose_entries(log)
            for after in ([], [b"4"], [b"4", b"5"]):
                if after:
                    await keeper.append(log, after[-1])
                assert (await keeper.top(log)).evicted == 3
                assert await keeper.recover(log, entries[1].stamp.position) == "evicted"
                assert await keeper.recover(log, entries[2].stamp.position) == after

    async def test_the_removals_lost_alone(self) -> None:
        log, other = self.log(), self.log()
        async with self.keeper() as keeper:
            (entry,) = await keeper.append(log, b"1")
            await keeper.append(other, b"1")
            granted((await keeper.store.remove([Removal(log, "ann")]))[0])
            await self.lose_removals(log)
            assert await removed(keeper, log, "ann") == await removed(keeper, log, "bob") == 1
            assert await removed(keeper, other, "bob") == 0
            assert await keeper.recover(log, entry.stamp.position, removed=1) == "forbidden"
            granted((await keeper.store.remove([Removal(log, "bob")]))[0])
            assert await removed(keeper, log, "bob") == 2
            assert await removed(keeper, log, "ann") >= 1

    async def test_an_engine_that_is_full_publishes_nothing(self) -> None:
        log, fresh = self.log(), self.log()
        async with self.keeper() as keeper, await self.listening(log) as listener:
            entries = await keeper.append(log, b"1", b"2")
            await keeper.store.keep(fresh.topic, b"kept")
            await self.fill()
            appends = [Append(log, b"3" * 1000), Append(log, b"4", "key", SAME)]
            for result in await keeper.store.append(appends):
                assert isinstance(result, Refused)
                assert result.reason == "engine"
            found = await keeper.read(log)
            assert found.entries == entries
            (unknown,) = await keeper.store.read([Query(fresh)])
            assert isinstance(unknown, Refused)
            assert isinstance(await refused(keeper.store.keep(fresh.topic, b"x" * 1000)), Refused)
            assert await keeper.store.kept(fresh.topic) == b"kept"
            assert await heard(listener, log, 2) == entries
            assert keeper.losses == []

    # --- connections

    async def test_without_a_connection(self) -> None:
        log = self.log()
        never = await self.store()
        await refused(never.append([Append(log, b"1")]))
        await refused(never.tops([log]))
        await never.close()
        never.release()
        async with self.keeper() as keeper:
            await keeper.append(log, b"1")
            for _ in range(3):
                await self.closed(keeper)
            await refused(keeper.append(log, b"2"))
            await refused(keeper.read(log))
            await keeper.connect()
            assert [entry.envelope for entry in (await keeper.read(log)).entries] == [b"1"]
            assert keeper.losses == []

    async def test_a_store_that_is_gone_is_told_once(self) -> None:
        log = self.log()
        async with self.keepers(2) as (idle, busy):

            async def append_on_and_on() -> None:
                while True:
                    await busy.append(log, *[b"x" * 100] * 10)

            appending = asyncio.create_task(refused(append_on_and_on()))
            await busy.append(self.log(), b"1")
            await self.kill()
            await until(lambda: idle.losses and busy.losses)
            await appending
            for keeper in (idle, busy):
                await refused(keeper.append(log, b"1"))
                await refused(keeper.read(log))
                await self.closed(keeper)
                assert len(keeper.losses) == 1
                await refused(keeper.connect())

    async def test_a_frozen_store_holds_nothing_up(self) -> None:
        log = self.log()
        async with self.keeper() as keeper:
            await self.freeze()
            try:
                for call in (keeper.append(log, b"1"), keeper.read(log), keeper.top(log)):
                    task = asyncio.create_task(call)
                    await asyncio.wait([task], timeout=0.1)
                    task.cancel()
                    await asyncio.wait([task], timeout=DEADLINE)
                    assert task.cancelled()
                await self.closed(keeper)
                connecting = asyncio.create_task(keeper.connect())
                await asyncio.wait([connecting], timeout=0.2)
                connecting.cancel()
                await asyncio.wait([connecting], timeout=DEADLINE)
                assert connecting.done()
                await self.closed(keeper)
            finally:
                await self.thaw()
            assert keeper.losses == []
            await self.open_again(keeper)

    async def test_a_cancelled_call_leaves_the_store_usable(self) -> None:
        log = self.log()
        async with self.keeper() as keeper:
            for steps in range(4):
                for call in (keeper.append(log, b"x" * 1000, b"y"), keeper.read(log), keeper.top(log)):
                    task = asyncio.create_task(call)
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.wait([task], timeout=DEADLINE)
                    assert task.done()
                (before,) = await keeper.append(log, b"before %d" % steps)  # what was cancelled is done before it
                (entry,) = await keeper.append(log, b"after %d" % steps)
                assert entry.stamp.position.offset == before.stamp.position.offset + 1
                assert (await keeper.read(log)).entries[-1] == entry
            assert keeper.losses == []

    async def open_again(self, keeper: Keeper) -> None:
        """Close a store's connection and open it again, as soon as the engine is there."""
        await self.closed(keeper)
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    await keeper.connect()
                    return
                except OSError:
                    await self.closed(keeper)
                    await asyncio.sleep(0.01)

    async def closed(self, keeper: Keeper) -> None:
        """Close a store's connection, and check that it does not take long."""
        begin = time.monotonic()
        await keeper.store.close()
        assert time.monotonic() - begin < CLOSE_TIMEOUT
