"""Stream writing: the part of the contract about beginning streams and appending to them. Knows no engine."""

from __future__ import annotations

import asyncio

from velocity_ws.history.items import Refused, granted
from velocity_ws.streams.items import Began, Summary, Written
from velocity_ws.testing.listener import Listener
from velocity_ws.testing.stream_engine import EngineOfStreams, text_of
from velocity_ws.testing.stream_pen import LONG, Pen

__all__ = ["StreamWritingContract", "heard"]

TAKEN = Written(is_taken=True)
REFUSED = Written(is_taken=False)


class StreamWritingContract(EngineOfStreams):
    """An id has one stream and one writer; what it says is stored and published in one step, once, in order."""

    # --- begin

    async def test_a_stream_begins(self) -> None:
        pen = self.pen(room="chat:7")
        async with self.scribe() as scribe:
            assert await scribe.look(pen.id) is None
            began = await scribe.begin(pen)
            found = await scribe.seen(pen)
        for stream in (began.stream, found):
            assert 0 < stream.left <= LONG.lease
            assert 0 <= stream.age < LONG.lease
            known = Summary(pen.id, pen.topic, "chat:7", pen.writer, 0, 0, "", stream.left, stream.age)
            assert stream == known
        assert not began.is_forbidden

    async def test_a_begin_that_is_asked_again_has_the_same_result(self) -> None:
        pen = self.pen()
        async with self.scribes(2) as (one, two):
            await one.begin(pen)
            assert await one.append(pen.say("text")) == [TAKEN]
            first, second = (granted(each) for each in await two.store.begin([pen.begin(), pen.begin()]))
            for began in (first, second):
                assert (began.stream.writer, began.stream.pieces, began.stream.length) == (pen.writer, 1, 4)
            assert text_of(await one.read(pen)) == "text"

    async def test_another_writer_is_told_of_the_stream_that_is_there(self) -> None:
        pen = self.pen()
        late, elsewhere = pen.other(), Pen(pen.id, self.topic(), "another room")
        async with self.scribes(2) as (one, two):
            await one.begin(pen)
            for other in (late, elsewhere):
                stream = (await two.begin(other)).stream
                assert (stream.topic, stream.room, stream.writer) == (pen.topic, pen.room, pen.writer)
                assert await two.append(other.say("no")) == [REFUSED]
                assert await two.renew(other) == REFUSED
            assert await one.listed(elsewhere.topic) == []
            await one.append(pen.say("all", "done"))
            stream = (await two.begin(elsewhere)).stream
            assert (stream.writer, stream.end, stream.length, stream.left) == (pen.writer, "done", 3, 0)

    async def test_many_that_begin_one_id_at_once_begin_one_stream(self) -> None:
        async with self.scribes(4) as scribes:
            for number in range(10):
                id_, topics = f"race {self.topic()}", [self.topic(), self.topic()]
                pens = [Pen(id_, topics[index % 2] if number % 2 else topics[0]) for index in range(20)]
                parts = [[pen.begin() for pen in pens[index::4]] for index in range(4)]
                results = await asyncio.gather(
                    *[scribe.store.begin(part) for scribe, part in zip(scribes, parts, strict=True)]
                )
                streams = [granted(result).stream for part in results for result in part]
                assert len({(stream.writer, stream.topic) for stream in streams}) == 1
                winner = next(pen for pen in pens if pen.writer == streams[0].writer)
                assert winner.topic == streams[0].topic
                assert await scribes[0].append(winner.say("mine")) == [TAKEN]
                others = [pen.say("not mine") for pen in pens if pen is not winner]
                assert await scribes[1].append(*others) == [REFUSED] * 19
                assert await scribes[2].listed(winner.topic) == [id_]
                (other,) = set(topics) - {winner.topic}
                assert await scribes[2].listed(other) == []

    async def test_many_streams_in_one_call(self) -> None:
        topics = [self.topic() for _ in range(5)]
        pens = [self.pen(topics[index % 5]) for index in range(100)]
        async with self.scribe() as scribe:
            results = await scribe.store.begin([pen.begin() for pen in pens])
            assert [granted(result).stream.writer for result in results] == [pen.writer for pen in pens]
            appends = [pens[number * number % 100].say(f"{number} ") for number in range(500)]
            assert await scribe.append(*appends) == [TAKEN] * 500
            for pen in pens:
                mine = [append.payload for append in appends if append.id == pen.id]
                assert (await scribe.read(pen)).payloads == mine
            assert await scribe.store.begin([]) == []
            assert await scribe.store.append([]) == []

    # --- append

    async def test_pieces_are_stored_and_published_once_and_in_order(self) -> None:
        pen, other = self.pen(), self.pen()
        async with self.scribe() as scribe, await self.listening(pen.topic) as listener:
            for each in (pen, other):
                await scribe.begin(each)
            appends = [pen.say("a", head=b""), pen.say("b\r\n", head=b"\0head\r\n"), pen.say("x" * 300_000)]
            appends += [pen.say(head=bytes(range(256))), pen.say("c")]
            assert await scribe.append(other.say("not heard"), *appends) == [TAKEN] * 6
            appends.append(pen.say("d", "done"))
            assert await scribe.append(appends[-1]) == [Written(is_taken=True, end="done")]
            assert await heard(listener, pen.topic, 6) == [each.head + each.payload for each in appends]
            found = await scribe.read(pen)
            assert text_of(found) == "ab\r\n" + "x" * 300_000 + "cd"
            assert (found.stream.pieces, found.stream.length, found.stream.end) == (6, pen.start, "done")

    async def test_a_piece_that_is_asked_again_is_taken_and_not_published_again(self) -> None:
        pen = self.pen()
        async with self.scribe() as scribe, await self.listening(pen.topic) as listener:
            await scribe.begin(pen)
            one, two = pen.say("1"), pen.say("2")
            assert await scribe.append(one, one, two) == [TAKEN] * 3
            assert await scribe.append(two) == [TAKEN]
            last = pen.say("3", "done")
            assert await scribe.append(last, last) == [Written(is_taken=True, end="done")] * 2
            assert await scribe.append(last) == [Written(is_taken=True, end="done")]
            assert [each[-1:] for each in await heard(listener, pen.topic, 3)] == [b"1", b"2", b"3"]
            assert (await scribe.seen(pen)).pieces == 3

    async def test_a_piece_that_is_not_the_next_is_refused(self) -> None:
        pen = self.pen()
        async with self.scribe() as scribe, await self.listening(pen.topic) as listener:
            await scribe.begin(pen)
            one, two, three = pen.say("1"), pen.say("2"), pen.say("3")
            assert await scribe.append(two) == [REFUSED]
            assert await scribe.append(one, three, two, one) == [TAKEN, REFUSED, TAKEN, REFUSED]
            assert await scribe.append(three) == [TAKEN]
            assert [each[-1:] for each in await heard(listener, pen.topic, 3)] == [b"1", b"2", b"3"]

    async def test_only_the_writer_appends(self) -> None:
        pen, unknown = self.pen(), self.pen()
        other = pen.other()
        async with self.scribe() as scribe, await self.listening(pen.topic, unknown.topic) as listener:
            await scribe.begin(pen)
            appends = [other.say("no"), pen.say("1"), unknown.say("no"), other.say("no")]
            assert await scribe.append(*appends) == [REFUSED, TAKEN, REFUSED, REFUSED]
            assert await scribe.append(pen.say("2")) == [TAKEN]
            assert [each[-1:] for each in await heard(listener, pen.topic, 2)] == [b"1", b"2"]
            assert await scribe.look(unknown.id) is None

    async def test_the_end_is_one_with_the_last_piece_and_nothing_comes_after(self) -> None:
        pen = self.pen()
        async with self.scribe() as scribe, await self.listening(pen.topic) as listener:
            await scribe.begin(pen)
            last, after = pen.say("last", "error"), pen.say("after")
            ended = Written(is_taken=True, end="error")
            assert await scribe.append(last, after) == [ended, Written(is_taken=False, end="error")]
            assert await scribe.append(after) == [Written(is_taken=False, end="error")]
            assert await scribe.renew(pen) == Written(is_taken=False, end="error")
            summary = await scribe.end(pen.end("cancelled"))
            assert summary is not None
            assert (summary.end, summary.pieces, summary.left) == ("error", 1, 0)
            assert await heard(listener, pen.topic, 1) == [last.head + last.payload]

    async def test_one_that_is_too_large_is_refused_alone(self) -> None:
        pen, other = self.pen(), self.pen()
        async with self.scribe() as scribe, await self.listening(pen.topic) as listener:
            for each in (pen, other):
                await scribe.begin(each)
            most = scribe.store.max_payload
            large = pen.other().say("x", head=b"")
            room = most - len(large.payload) + 1
            first = pen.say("x" * room, head=b"")
            assert len(first.payload) == most
            one, refused, two = await scribe.store.append([first, pen.say("y" * room, head=b"h"), other.say("z")])
            assert (one, two) == (TAKEN, TAKEN)
            assert isinstance(refused, Refused)
            assert refused.reason == "engine"
            assert str(most) in str(refused)
            assert len((await heard(listener, pen.topic, 1))[0]) == most
            assert (await scribe.seen(pen)).pieces == 1

    async def test_writers_at_once(self) -> None:
        topic = self.topic()
        async with self.scribes(4) as scribes, await self.listening(topic) as listener:
            pens = [self.pen(topic) for _ in range(8)]
            results = await scribes[0].store.begin([pen.begin() for pen in pens])
            assert all(isinstance(result, Began) for result in results)

            async def write(index: int) -> None:
                for number in range(10):
                    appends = [pen.say(f"{number} {step} ") for pen in pens[index::4] for step in range(3)]
                    assert await scribes[index].append(*appends) == [TAKEN] * 6

            await asyncio.gather(*[write(index) for index in range(4)])
            said = "".join(f"{number} {step} " for number in range(10) for step in range(3))
            published = await heard(listener, topic, 240)
            for pen in pens:
                found = await scribes[0].read(pen)
                assert text_of(found) == said
                assert [each for each in published if each[5:] in found.payloads] != []
                assert pen.number == found.stream.pieces == 30


async def heard(listener: Listener, topic: str, count: int) -> list[bytes]:
    """What a backplane heard of a topic, once there are ``count``; and not one more.

    Raises:
        TimeoutError: fewer came within 20 seconds.
    """
    while len(found := [payload for where, payload in listener.received if where == topic]) < count:
        await listener.messages(len(listener.received) + 1)
    assert len(found) == count
    return found
