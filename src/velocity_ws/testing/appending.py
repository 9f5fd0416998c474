"""Appending: the part of the contract about what goes into logs, and who hears it. Knows no engine."""

from __future__ import annotations

import asyncio

from velocity_ws.history.entries import Entry
from velocity_ws.history.items import Append, Appended, Limits, Log, Refused, granted
from velocity_ws.testing.history_engine import EngineOfHistory, Keeper
from velocity_ws.testing.listener import Listener

__all__ = ["AppendingContract"]

SAME, OTHER = b"s" * 16, b"o" * 16


class AppendingContract(EngineOfHistory):
    """An append is one step: numbered, stored, published; once for a key; and what is beyond the limits is gone."""

    async def test_entries_are_numbered_and_chained(self) -> None:
        log = self.log()
        async with self.keeper() as keeper:
            beginning = (await keeper.top(log)).position
            assert (beginning.offset, beginning.revision) == (0, 0)
            entries = await keeper.append(log, b"1", b"2") + await keeper.append(log, b"3")
            top = await keeper.top(log)
        stamps = [entry.stamp for entry in entries]
        assert [stamp.position.offset for stamp in stamps] == [1, 2, 3]
        assert {stamp.position.epoch for stamp in stamps} == {beginning.epoch}
        marks = [beginning.mark, *(stamp.position.mark for stamp in stamps)]
        assert [stamp.previous for stamp in stamps] == marks[:-1]
        assert len(set(marks)) == 4
        assert top.position == stamps[-1].position
        assert top.evicted == 0
        assert stamps[0].time <= stamps[1].time <= stamps[2].time <= top.time

    async def test_what_is_stored_is_published(self) -> None:
        log, other = self.log(), self.log()
        envelopes = [b"", b"hello", bytes(range(256)), b"x" * 300_000, b"\r\n$5\r\n"]
        async with self.keeper() as keeper, await self.listening(log) as listener:
            await keeper.append(other, b"not heard")
            entries = await keeper.append(log, *envelopes)
            assert await heard(listener, log, 5) == entries
            assert (await keeper.read(log)).entries == entries

    async def test_many_logs_in_one_call(self) -> None:
        logs = [self.log() for _ in range(200)]
        appends = [Append(logs[number * number % 200], b"%d" % number) for number in range(1000)]
        async with self.keeper() as keeper:
            results = [granted(result) for result in await keeper.store.append(appends)]
            for log in logs:
                mine = [
                    Entry(result.stamp, append.envelope)
                    for append, result in zip(appends, results, strict=True)
                    if append.log is log
                ]
                assert (await keeper.read(log)).entries == mine
                assert [entry.stamp.position.offset for entry in mine] == list(range(1, len(mine) + 1))
            assert await keeper.store.append([]) == []

    async def test_names_that_are_nearly_the_same(self) -> None:
        limits = self.log().limits
        topics = ["a", "A", "a.b", "a.B", "ab", "a=2A", "a=2a", "a=", "a~", "a.log", "a.meta", "a-b", "a_b"]
        async with self.keeper() as keeper:
            for topic in topics:
                await keeper.append(Log(topic, limits), topic.encode())
            for topic in topics:
                found = await keeper.read(Log(topic, limits))
                assert [entry.envelope for entry in found.entries] == [topic.encode()]

    async def test_writers_at_once(self) -> None:
        logs = [self.log() for _ in range(3)]
        async with self.keepers(4) as keepers, await self.listening(*logs) as listener:

            async def write(keeper: Keeper, who: int) -> None:
                for number in range(10):
                    each = [Append(log, b"%d %d" % (who, number * 4 + step)) for step in range(4) for log in logs]
                    for result in await keeper.store.append(each):
                        granted(result)

            await asyncio.gather(*[write(keeper, who) for who, keeper in enumerate(keepers)])
            await listener.messages(480)
            for log in logs:
                entries = (await keepers[0].read(log)).entries
                assert [entry.stamp.position.offset for entry in entries] == list(range(1, 161))
                assert await heard(listener, log, 160) == entries
                for who in range(4):
                    mine = [entry.envelope for entry in entries if entry.envelope.startswith(b"%d " % who)]
                    assert mine == [b"%d %d" % (who, number) for number in range(40)]

    # --- keys

    async def test_a_key_appends_once(self) -> None:
        log, other = self.log(), self.log()
        async with self.keepers(2) as (one, two), await self.listening(log) as listener:
            first = await one.append_once(log, b"1", "key", SAME)
            again = await two.append_once(log, b"another envelope of the same", "key", SAME)
            assert not first.is_duplicate
            assert again == Appended(first.packed, is_duplicate=True)
            elsewhere = await two.append_once(other, b"1", "key", OTHER)
            assert not elsewhere.is_duplicate
            named = await two.append_once(log, b"2", "KEY", OTHER)
            assert (named.is_duplicate, named.stamp.position.offset) == (False, 2)
            assert [entry.envelope for entry in (await one.read(log)).entries] == [b"1", b"2"]
            assert [entry.envelope for entry in await heard(listener, log, 2)] == [b"1", b"2"]

    async def test_a_key_of_another_message_is_refused(self) -> None:
        log = self.log()
        async with self.keeper() as keeper:
            await keeper.append_once(log, b"1", "key", SAME)
            appends = [Append(log, b"2"), Append(log, b"3", "key", OTHER), Append(log, b"4")]
            two, refused, four = await keeper.store.append(appends)
            assert isinstance(refused, Refused)
            assert refused.reason == "conflict"
            assert [granted(each).stamp.position.offset for each in (two, four)] == [2, 3]
            assert [entry.envelope for entry in (await keeper.read(log)).entries] == [b"1", b"2", b"4"]

    async def test_a_key_in_one_call_and_of_any_text(self) -> None:
        log = self.log()
        keys = ["a" * 256, "ключ * > . {} \0", "a", "A"]
        async with self.keeper() as keeper:
            appends = [Append(log, key.encode(), key, SAME) for key in keys for _ in range(2)]
            results = [granted(each) for each in await keeper.store.append(appends)]
            assert [each.is_duplicate for each in results] == [False, True] * 4
            assert [each.stamp.position.offset for each in results] == [1, 1, 2, 2, 3, 3, 4, 4]

    async def test_a_key_outlives_its_entry(self) -> None:
        log = self.log(size=1)
        async with self.keeper() as keeper:
            first = await keeper.append_once(log, b"1", "key", SAME)
            await keeper.append(log, b"2")
            again = await keeper.append_once(log, b"1", "key", SAME)
            assert again == Appended(first.packed, is_duplicate=True)

    async def test_a_key_at_once_from_several(self) -> None:
        log = self.log()
        async with self.keepers(4) as keepers:
            for number in range(10):
                key, envelope = f"key {number}", b"%d" % number
                results = await asyncio.gather(*[each.append_once(log, envelope, key, SAME) for each in keepers])
                assert [result.is_duplicate for result in results].count(False) == 1
                assert {result.stamp.position.offset for result in results} == {number + 1}

    # --- limits

    async def test_the_number_of_entries(self) -> None:
        log = self.log(size=3)
        async with self.keeper() as keeper:
            for count in range(1, 8):
                await keeper.append(log, b"%d" % count)
                found = await keeper.read(log)
                first = max(1, count - 2)
                assert [entry.envelope for entry in found.entries] == [b"%d" % each for each in range(first, count + 1)]
                assert found.top.evicted == (await keeper.top(log)).evicted == first - 1

    async def test_the_bytes_of_entries(self) -> None:
        log = self.log(max_bytes=100)
        async with self.keeper() as keeper:
            for sizes, evicted in [
                ((40, 60), 0),
                ((1,), 1),
                ((39,), 1),
                ((1,), 2),
                ((101,), 6),
                ((100,), 6),
                ((1,), 7),
            ]:
                await keeper.append(log, *(b"x" * size for size in sizes))
                found = await keeper.read(log)
                assert found.top.evicted == evicted
                offsets = [entry.stamp.position.offset for entry in found.entries]
                assert offsets == list(range(evicted + 1, found.top.position.offset + 1))

    async def test_limits_that_change_apply_from_the_next_append(self) -> None:
        log = self.log(size=10)
        async with self.keeper() as keeper:
            await keeper.append(log, *(b"%d" % number for number in range(1, 9)))
            small = Log(log.topic, log.limits._replace(size=2))
            assert len((await keeper.read(small)).entries) == 8
            await keeper.append(small, b"9")
            assert [entry.envelope for entry in (await keeper.read(log)).entries] == [b"8", b"9"]
            await keeper.append(log, b"10")
            assert len((await keeper.read(log)).entries) == 3

    async def test_one_that_is_too_large_is_refused_alone(self) -> None:
        log = self.log(max_bytes=2**30)
        async with self.keeper() as keeper, await self.listening(log) as listener:
            most = keeper.store.max_payload
            appends = [Append(log, b"1"), Append(log, b"x" * (most + 1)), Append(log, b"y" * most), Append(log, b"2")]
            one, refused, large, two = await keeper.store.append(appends)
            assert isinstance(refused, Refused)
            assert refused.reason == "engine"
            assert str(most) in str(refused)
            offsets = [granted(each).stamp.position.offset for each in (one, large, two)]
            assert offsets == [1, 2, 3]
            entries = await heard(listener, log, 3)
            assert [len(entry.envelope) for entry in entries] == [1, most, 1]

    async def test_a_log_of_one_entry_and_of_many(self) -> None:
        one, many = self.log(size=1), self.log(size=500)
        assert Limits(1, 1, 1).meta_ttl >= 300_000
        async with self.keeper() as keeper:
            await keeper.append(one, b"1", b"2", b"3")
            await keeper.append(many, *(b"%d" % number for number in range(1, 601)))
            assert [entry.envelope for entry in (await keeper.read(one)).entries] == [b"3"]
            found = (await keeper.read(many)).entries
            assert [entry.envelope for entry in found] == [b"%d" % number for number in range(101, 601)]


async def heard(listener: Listener, log: Log, count: int) -> list[Entry]:
    """The entries of a log that a backplane heard, once there are ``count``; and not one more.

    Raises:
        TimeoutError: fewer came within 20 seconds.
    """
    while len(found := [payload for topic, payload in listener.received if topic == log.topic]) < count:
        await listener.messages(len(listener.received) + 1)
    assert len(found) == count
    return [Entry.unpack(payload) for payload in found]
