"""Reading: the part of the contract about what logs give back, and to which positions. Knows no engine."""

from __future__ import annotations

import asyncio

from velocity_ws.history.entries import Entry
from velocity_ws.history.items import KEPT_SIZE, Limits, Log, Lookup, Query, Range, Refused, Removal, granted
from velocity_ws.history.positions import Position
from velocity_ws.testing.appending import OTHER, SAME, heard
from velocity_ws.testing.history_engine import EngineOfHistory, Keeper
from velocity_ws.testing.listener import DEADLINE, refused

__all__ = ["ReadingContract"]


class ReadingContract(EngineOfHistory):
    """What was appended is read back, whole, in order, or not at all; and every position is judged by what was kept."""

    async def test_an_unknown_log_begins_an_epoch(self) -> None:
        logs = [self.log(), self.log()]
        async with self.keepers(2) as (one, two):
            found = await one.read(logs[0])
            assert found.entries == []
            assert found.top.position.offset == 0
            assert (await two.top(logs[0])).position == found.top.position
            assert (await two.top(logs[1])).position.epoch != found.top.position.epoch
            (entry,) = await two.append(logs[0], b"1")
            assert entry.stamp.position.epoch == found.top.position.epoch
            assert entry.stamp.previous == found.top.position.mark

    async def test_parts_of_a_log(self) -> None:
        log = self.log(size=12)
        async with self.keeper() as keeper:
            await keeper.append(log, *(b"x" * (1 + number % 5) for number in range(17)))
            kept = (await keeper.read(log)).entries
            assert len(kept) == 12
            queries = [
                Query(log, after, limit, max_bytes, newest)
                for after in (0, 4, 5, 6, 11, 16, 17, 30)
                for limit in (1, 3, 12, 100)
                for max_bytes in (1, 6, 1000)
                for newest in (False, True)
            ]
            for query, result in zip(queries, await keeper.store.read(queries), strict=True):
                found = granted(result)
                assert found.entries == part(kept, query), query
                assert (found.top.position.offset, found.top.evicted) == (17, 5)
            assert await keeper.store.read([]) == []
            assert await keeper.store.tops([]) == []

    async def test_many_logs_at_once(self) -> None:
        logs = [self.log() for _ in range(300)]
        async with self.keeper() as keeper:
            for number, log in enumerate(logs[:100]):
                await keeper.append(log, *(b"%d" % each for each in range(number % 7)))
            tops = [granted(top) for top in await keeper.store.tops(logs)]
            ranges: list[Range | Refused] = await keeper.store.read([Query(log) for log in logs])
            for number, (top, result) in enumerate(zip(tops, ranges, strict=True)):
                found = granted(result)
                assert found.top.position == top.position
                assert len(found.entries) == top.position.offset == (number % 7 if number < 100 else 0)

    async def test_what_was_missed_is_recovered_from_every_position(self) -> None:
        log = self.log(size=5)
        async with self.keeper() as keeper:
            positions = [(await keeper.top(log)).position]
            for number in range(1, 10):
                (entry,) = await keeper.append(log, b"%d" % number)
                positions.append(entry.stamp.position)
                for position in positions:
                    missed = await keeper.recover(log, Position.parse(position.at))
                    first = position.offset + 1
                    if number - position.offset > 5:
                        assert missed == "evicted"
                    else:
                        assert missed == [b"%d" % each for each in range(first, number + 1)]
            assert await keeper.recover(log, positions[-3], limit=1) == "too_many"
            assert await keeper.recover(log, positions[-3]._replace(mark=b"12345678")) == "rewound"
            assert await keeper.recover(log, positions[-1]._replace(offset=10)) == "rewound"
            assert await keeper.recover(log, positions[-1]._replace(epoch=b"123456")) == "epoch"

    async def test_an_entry_is_there_until_it_is_too_old_by_the_engines_clock(self) -> None:
        log = self.log(ttl=200)
        async with self.keeper() as keeper:
            (first,) = await keeper.append(log, b"1")
            await self.pass_time(80)
            (second,) = await keeper.append(log, b"2")
            entries = [first, second]
            async with asyncio.timeout(DEADLINE):
                while True:
                    found = await keeper.read(log)
                    alive = [entry for entry in entries if found.top.time - entry.stamp.time < 200]
                    assert found.entries == alive
                    if not alive:
                        break
                    await self.pass_time(10)
            assert found.top.position == second.stamp.position
            assert found.top.evicted == 0
            assert await keeper.recover(log, first.stamp.position) == "expired"
            assert await keeper.recover(log, second.stamp.position) == []
            await self.pass_time(300)  # longer than the engine may keep what is empty
            (third,) = await keeper.append(log, b"3")
            assert third.stamp.previous == second.stamp.position.mark
            assert await keeper.recover(log, first.stamp.position) == "expired"
            assert await keeper.recover(log, second.stamp.position) == [b"3"]

    async def test_what_is_too_old_is_not_counted_as_too_many(self) -> None:
        log = self.log(size=2, ttl=1500)  # what follows takes less, on a busy machine, too
        async with self.keeper() as keeper:
            entries = await keeper.append(log, b"1", b"2")
            await self.pass_time(1600)
            (third,) = await keeper.append(log, b"3")
            assert (await keeper.top(log)).evicted == 0
            assert await keeper.recover(log, entries[0].stamp.position) == "expired"
            await keeper.append(log, b"4", b"5")
            assert (await keeper.top(log)).evicted == 3
            assert await keeper.recover(log, entries[0].stamp.position) == "evicted"
            assert await keeper.recover(log, third.stamp.position) == [b"4", b"5"]

    async def test_a_smaller_age_applies_from_the_next_append(self) -> None:
        log = self.log()
        async with self.keeper() as keeper:
            (first,) = await keeper.append(log, b"1")
            short = Log(log.topic, Limits(1000, 50, 1024))
            await self.pass_time(100)
            assert len((await keeper.read(short)).entries) == 1
            await keeper.append(short, b"2")
            assert [entry.envelope for entry in (await keeper.read(log, first.stamp.position.offset - 1)).entries] in (
                [b"2"],
                [],  # on a machine that is busy
            )

    async def test_a_secret_is_shared(self) -> None:
        async with self.keepers(3) as keepers:
            found = await asyncio.gather(*[keeper.store.secret("history.secret") for keeper in keepers])
            assert len(set(found)) == 1
            assert len(found[0]) == 32
            other = await keepers[0].store.secret("history.other")
            assert other != found[0]
            assert await keepers[1].store.secret("history.other") == other

    async def test_a_value_is_kept_and_shared(self) -> None:
        name, other = self.log().topic, self.log().topic
        async with self.keepers(2) as (one, two):
            assert await one.store.kept(name) is None
            secret = await one.store.secret(name)
            large = bytes(range(256)) * (KEPT_SIZE // 256)
            for writer, value in ((one, b"first"), (two, b""), (one, large), (two, b"\r\n$5\r\nlast")):
                await writer.store.keep(name, value)
                assert await two.store.kept(name) == await one.store.kept(name) == value
            assert isinstance(await refused(one.store.keep(name, b"x" * (KEPT_SIZE + 1))), Refused)
            values = [b"%d" % number for number in range(20)]
            await asyncio.gather(*[(one, two)[index % 2].store.keep(name, value) for index, value in enumerate(values)])
            last = await one.store.kept(name)
            assert last == await two.store.kept(name)
            assert last in values
            assert await two.store.kept(other) is None
            assert await two.store.secret(name) == secret

    # --- removals and clearing

    async def test_a_removal_is_kept_and_told(self) -> None:
        log, other = self.log(), self.log()
        async with self.keepers(2) as (one, two), await self.listening(log, other) as listener:
            (first,) = await one.append(log, b"1")
            assert await removed(one, log, "ann") == 0
            removals = [Removal(log, "ann", b"out"), Removal(log, "ёж * {} \0" + "x" * 240), Removal(other, "bob")]
            ann, hedgehog, bob = [granted(top) for top in await one.store.remove(removals)]
            assert ann.position == first.stamp.position._replace(revision=1)
            assert hedgehog.position == first.stamp.position._replace(revision=2)
            assert (bob.position.offset, bob.position.revision) == (0, 1)
            (second,) = await two.append(log, b"2")
            assert second.stamp.position.revision == 2
            assert second.stamp.previous == first.stamp.position.mark
            lookups = [Lookup(log, "ann"), Lookup(log, removals[1].user), Lookup(log, "bob"), Lookup(self.log(), "ann")]
            assert await two.store.removed(lookups) == [1, 2, 0, 0]
            entries = await heard(listener, log, 3)
            assert [entry.envelope for entry in entries] == [b"1", b"out", b"2"]
            assert entries[1].stamp.position == ann.position
            assert entries[1].stamp.previous == ann.position.mark
            assert await two.recover(log, first.stamp.position, removed=1) == "forbidden"
            assert await two.recover(log, ann.position, removed=1) == [b"2"]
            forged = Position.parse(first.stamp.position.at)._replace(revision=1)  # as if it had come after the removal
            assert await two.recover(log, forged, removed=1) == "rewound"
            assert await two.recover(log, first.stamp.position) == [b"2"]
            granted((await two.store.remove([Removal(log, "ann")]))[0])
            assert await removed(one, log, "ann") == 3

    async def test_clearing(self) -> None:
        log = self.log()
        async with self.keepers(2) as (one, two), await self.listening(log) as listener:
            await one.append_once(log, b"1", "key", SAME)
            entries = await one.append(log, b"2", b"3")
            granted((await one.store.remove([Removal(log, "ann")]))[0])
            top = await two.store.clear(log, b"cleared")
            assert top.position == entries[-1].stamp.position._replace(revision=2)
            assert top.evicted == 3
            assert (await one.read(log)).entries == []
            assert await removed(two, log, "ann") == 1
            (fourth,) = await one.append(log, b"4")
            assert fourth.stamp.previous == entries[-1].stamp.position.mark
            assert await one.recover(log, entries[0].stamp.position) == "evicted"
            assert await one.recover(log, entries[-1].stamp.position) == [b"4"]
            again = await one.append_once(log, b"5", "key", OTHER)
            assert (again.is_duplicate, again.stamp.position.offset) == (False, 5)
            duplicate = await two.append_once(log, b"5", "key", OTHER)
            assert duplicate.is_duplicate
            assert [entry.envelope for entry in await heard(listener, log, 6)] == [
                *(b"1", b"2", b"3", b"cleared", b"4", b"5")
            ]

    async def test_clearing_what_is_not_there(self) -> None:
        log = self.log()
        async with self.keeper() as keeper:
            top = await keeper.store.clear(log)
            assert (top.position.offset, top.position.revision, top.evicted) == (0, 1, 0)
            (entry,) = await keeper.append(log, b"1")
            assert entry.stamp.previous == top.position.mark


def part(kept: list[Entry], query: Query) -> list[Entry]:
    """What a query asks for, of all that is kept."""
    found = [entry for entry in kept if entry.stamp.position.offset > query.after]
    if query.newest:
        found.reverse()
    taken: list[Entry] = []
    for entry in found[: query.limit]:
        if taken and sum(len(each.envelope) for each in [*taken, entry]) > query.max_bytes:
            break
        taken.append(entry)
    return taken[::-1] if query.newest else taken


async def removed(keeper: Keeper, log: Log, user: str) -> int:
    """When a user was last removed."""
    (found,) = await keeper.store.removed([Lookup(log, user)])
    return found
