"""Stream reading: the part of the contract about what streams give back, and which there are. Knows no engine."""

from __future__ import annotations

import itertools
import random

from velocity_ws.history.items import granted
from velocity_ws.streams.items import MAX_LISTED, Part, Query, Times
from velocity_ws.streams.pieces import Piece, join, unpack
from velocity_ws.testing.stream_engine import PREFIX, EngineOfStreams, Scribe, text_of
from velocity_ws.testing.stream_pen import HOUR, Pen
from velocity_ws.testing.stream_writing import REFUSED, TAKEN

__all__ = ["StreamReadingContract"]

TEXTS = ["plain", "é", "\U0001f600\U0001f44b", "\r\n", "\u2028", "\0", "e\u0301", "x" * 2000, "\ufffd", '"\\']
"""Characters are code points, whatever their bytes."""
NAMES = [
    *("a", "A", " ", "\0", "\r\n", "*", "a.b", "a*b", ">", "{a}", "\ud83d", "\ude00", "\U0001f600", "имя", "'; --"),
    *("x" * 256, "x" * 255 + "y", "\U0001f600" * 256, "\ud83d" * 256),
]


class StreamReadingContract(EngineOfStreams):
    """What was appended is read back from any place, whole and in order; and every stream is found."""

    async def test_text_is_read_from_any_character(self) -> None:
        pen = self.pen()
        async with self.scribe() as scribe:
            await scribe.begin(pen)
            said = "".join(TEXTS)
            payloads = [append.payload for append in [pen.say(text) for text in TEXTS]]
            again = pen.other()
            again.writer = pen.writer
            assert await scribe.append(*[again.say(text) for text in TEXTS]) == [TAKEN] * len(TEXTS)
            whole = await scribe.read(pen)
            assert whole.payloads == payloads
            assert whole.stream.length == len(said)
            for after in [*range(20), len(said) - 1, len(said), len(said) + 5]:
                found = await scribe.read(pen, after)
                assert whole.payloads[len(payloads) - len(found.payloads) :] == found.payloads
                assert text_of(found, after) == said[after:]
                assert len(found.payloads) <= 1 or unpack(found.payloads[0]).stop > after

    async def test_items_are_read_from_any_item(self) -> None:
        pen = self.pen()
        async with self.scribe() as scribe:
            await scribe.begin(pen)
            batches = [["1"], ['{"a":[1,2]}', "null"], ['"\\ud83d\\ude00"', "[]", "2.5"], ['",,"']]
            items = [item for batch in batches for item in batch]
            await scribe.append(*[pen.give(*batch) for batch in batches])
            await scribe.append(pen.give(end="done"))
            for after in range(len(items) + 1):
                found = await scribe.read(pen, after)
                assert text_of(found, after) == ",".join(items[after:])
                assert (found.stream.length, found.stream.end) == (len(items), "done")

    async def test_a_read_is_bounded_by_bytes(self) -> None:
        pen = self.pen()
        async with self.scribe() as scribe:
            await scribe.begin(pen)
            said = ""
            for index in range(300):
                text = str(index) * (1 + index % 7)
                said += text
                await scribe.append(pen.say(text))
            for most in (1, 30, 100, 1000, 5000):
                read = ""
                while len(read) < len(said):
                    found = await scribe.read(pen, len(read), most)
                    assert len(found.payloads) == 1 or sum(map(len, found.payloads)) <= most
                    assert found.stream.length == len(said)
                    rest = text_of(found, len(read))
                    assert rest
                    read += rest
                assert read == said
            # As much as may be comes, so that a reader is not sent to the engine for each piece.
            found = await scribe.read(pen, 0, 5000)
            assert sum(map(len, found.payloads)) > 4900

    async def test_a_first_piece_comes_where_it_is_larger_than_what_is_asked_for(self) -> None:
        pen = self.pen()
        async with self.scribe() as scribe:
            await scribe.begin(pen)
            await scribe.append(pen.say("x" * 200_000), pen.say("y" * 200_000))
            for after, payloads in ((0, 1), (199_999, 1), (200_000, 1), (300_000, 1)):
                found = await scribe.read(pen, after, 10)
                assert len(found.payloads) == payloads
                assert text_of(found, after)[:1] == ("x" if after < 200_000 else "y")

    async def test_pieces_of_nothing_hold_no_reader_up(self) -> None:
        pen = self.pen()
        async with self.scribe() as scribe:
            await scribe.begin(pen)
            assert (await scribe.read(pen)).payloads == []
            said = [pen.say(), pen.say("a"), *(pen.say() for _ in range(50)), pen.say("b"), pen.say(), pen.say("c")]
            await scribe.append(*said, pen.say("", "done"))
            for after, rest in ((0, "abc"), (1, "bc"), (2, "c"), (3, "")):
                found = await scribe.read(pen, after)
                assert text_of(found, after) == rest
                assert (found.stream.end, found.stream.length) == ("done", 3)

    async def test_many_reads_in_one_call(self) -> None:
        pens = [self.pen() for _ in range(20)]
        unknown = self.pen()
        async with self.scribe() as scribe:
            await scribe.store.begin([pen.begin() for pen in pens])
            await scribe.append(*[pen.say(f"text {index}") for index, pen in enumerate(pens)])
            queries = [Query(pen.id, pen.topic) for pen in [*pens, unknown]]
            *parts, none = await scribe.store.read(queries)
            assert none is None
            assert [text_of(found) for part in parts if (found := granted(part))] == [f"text {n}" for n in range(20)]
            assert await scribe.store.read([]) == []

    async def test_random_cuts(self) -> None:
        chance = random.Random(16)  # noqa: S311 - the same each time
        pen = self.pen()
        async with self.scribe() as scribe:
            await scribe.begin(pen)
            said = ""
            for _ in range(60):
                texts = ["".join(chance.choices("ab\U0001f600é\n", k=chance.randint(0, 30))) for _ in range(3)]
                said += "".join(texts)
                await scribe.append(*[pen.say(text) for text in texts])
                after = chance.randint(0, len(said))
                read = said[:after]
                while len(read) < len(said):
                    found = await scribe.read(pen, len(read), chance.choice([1, 50, 500, 2**20]))
                    follows(found)
                    read += text_of(found, len(read))
                assert read == said

    # --- which there are

    async def test_the_streams_of_a_topic_are_listed_newest_first(self) -> None:
        topics = [self.topic(), self.topic()]
        pens = [self.pen(topics[index % 2], room=f"room {index % 2}") for index in range(12)]
        async with self.scribe() as scribe:
            for pen in pens:
                await scribe.begin(pen)
            await scribe.append(pens[0].say("text", "done"), pens[2].say("te"))
            one, other, none = await scribe.store.listed([*topics, self.topic()])
            assert [summary.id for summary in granted(one)] == [pen.id for pen in pens[0::2]][::-1]
            assert [summary.id for summary in granted(other)] == [pen.id for pen in pens[1::2]][::-1]
            assert granted(none) == []
            for pen, summary in zip(pens[0::2], granted(one)[::-1], strict=True):
                looked = await scribe.seen(pen)
                assert looked._replace(left=summary.left, age=summary.age) == summary
                assert summary.room == "room 0"
                assert looked.left <= summary.left
                assert looked.age >= summary.age
            assert await scribe.store.listed([]) == []

    async def test_what_is_gone_is_listed_no_more(self) -> None:
        topic = self.topic()
        kept, brief, dead = self.pen(topic), self.pen(topic, Times(HOUR, 50, HOUR)), self.pen(topic, Times(50, 50, 50))
        async with self.scribe() as scribe:
            for pen in (kept, brief, dead):
                await scribe.begin(pen)
            await scribe.append(brief.say("text", "done"), kept.say("text", "done"))
            for pen in (brief, dead):
                await scribe.until_gone(pen)
            assert await scribe.listed(topic) == [kept.id]
            newer = self.pen(topic)
            await scribe.begin(newer)
            assert await scribe.listed(topic) == [newer.id, kept.id]

    async def test_so_many_are_listed_at_most(self) -> None:
        topic = self.topic()
        old = [self.pen(topic) for _ in range(5)]
        new = [self.pen(topic) for _ in range(MAX_LISTED)]
        async with self.scribe() as scribe:
            for pens in (old, new):
                for result in await scribe.store.begin([pen.begin() for pen in pens]):
                    granted(result)
            found = await scribe.listed(topic)
            assert len(found) == MAX_LISTED
            assert set(found) == {pen.id for pen in new}

    # --- names

    async def test_ids_and_rooms_are_any_text(self) -> None:
        topic = self.topic()
        pens = [Pen(f"{name}"[:256], topic, name) for name in NAMES]
        async with self.scribe() as scribe:
            for pen in pens:
                assert await scribe.look(pen.id) is None
                stream = (await scribe.begin(pen)).stream
                assert (stream.id, stream.room, stream.writer) == (pen.id, pen.room, pen.writer)
            assert await scribe.append(*[pen.say(f"{index}") for index, pen in enumerate(pens)]) == [TAKEN] * len(pens)
            for index, pen in enumerate(pens):
                found = await scribe.read(pen)
                assert text_of(found) == f"{index}"
                assert (found.stream.id, found.stream.room, found.stream.topic) == (pen.id, pen.room, topic)
                assert (await scribe.seen(pen))[:3] == (pen.id, topic, pen.room)
            (summaries,) = await scribe.store.listed([topic])
            assert [(each.id, each.room) for each in granted(summaries)] == [(pen.id, pen.room) for pen in pens][::-1]

    async def test_topics_that_are_nearly_the_same(self) -> None:
        beginning = self.topic()
        topics = [beginning + rest for rest in ("", "a", "A", ".b", ".B", "=2A", "=2a", "=", "~", ".streams", "-b")]
        pens = [self.pen(topic) for topic in topics]
        async with self.scribe() as scribe:
            await scribe.store.begin([pen.begin() for pen in pens])
            for pen in pens:
                assert await scribe.listed(pen.topic) == [pen.id]
                assert (await scribe.seen(pen)).topic == pen.topic

    async def test_clusters_of_other_prefixes_do_not_meet(self) -> None:
        other_prefix = f"{PREFIX}-other"
        pen = self.pen()
        other = Pen(pen.id, self.topic(other_prefix))
        async with self.scribe() as one, self.scribe(other_prefix) as two:
            assert (await one.begin(pen)).stream.writer == pen.writer
            assert await two.look(pen.id) is None
            await two.store.forbid([pen.id], HOUR)
            began = await two.begin(other)
            assert (began.stream.writer, began.is_forbidden) == (other.writer, True)
            assert not (await one.begin(pen)).is_forbidden
            assert await one.append(pen.say("one")) == await two.append(other.say("two")) == [TAKEN]
            assert await two.append(pen.other().say("one")) == [REFUSED]
            assert (text_of(await one.read(pen)), text_of(await two.read(other))) == ("one", "two")
            assert await self.is_marked_alone(one, two)

    async def is_marked_alone(self, one: Scribe, two: Scribe) -> bool:
        """Mark for one, which may be marked by another test; the other is of a prefix that none marks."""
        await one.store.mark()
        return await one.store.is_marked() and not await two.store.is_marked()

    async def test_a_mark_is_kept(self) -> None:
        prefix = f"{PREFIX}-marked"
        async with self.scribes(2, prefix) as (one, two):
            assert not await one.store.is_marked()
            await two.store.mark()
            await two.store.mark()
            assert await one.store.is_marked()
            await one.store.close()
            await one.connect()
            assert await one.store.is_marked()


def follows(part: Part) -> Piece:
    """What was read, as one; each piece begins where the one before ends."""
    pieces = [unpack(payload) for payload in part.payloads]
    assert all(after.start == before.stop for before, after in itertools.pairwise(pieces))
    return join(pieces)
