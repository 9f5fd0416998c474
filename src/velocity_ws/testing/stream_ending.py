"""Stream ending: the part of the contract about leases, ends of others, and what is gone. Knows no engine."""

from __future__ import annotations

import asyncio

from velocity_ws.history.items import granted
from velocity_ws.streams.items import Summary, Times, Written
from velocity_ws.streams.pieces import pack_end
from velocity_ws.testing.listener import DEADLINE
from velocity_ws.testing.stream_engine import EngineOfStreams, Scribe, text_of
from velocity_ws.testing.stream_pen import HOUR, LONG, Pen
from velocity_ws.testing.stream_writing import REFUSED, TAKEN, heard

__all__ = ["StreamEndingContract"]

SOON = Times(100, HOUR, HOUR)
"""A lease that is over before a test is."""


class StreamEndingContract(EngineOfStreams):
    """A stream ends once; a dead writer's is ended by others; what has ended is gone in its time, and forgotten."""

    async def test_another_ends_a_stream(self) -> None:
        pen = self.pen()
        async with self.scribes(2) as (one, two), await self.listening(pen.topic) as listener:
            await one.begin(pen)
            first = pen.say("text")
            await one.append(first)
            found = await two.end(pen.end("cancelled", head=b"head of the end"))
            assert found is not None
            assert (found.end, found.pieces, found.length, found.left) == ("cancelled", 2, 4, 0)
            again = await two.end(pen.end("lost"))
            assert again is not None
            assert (again.end, again.pieces) == ("cancelled", 2)
            refused = Written(is_taken=False, end="cancelled")
            assert await one.append(pen.say("more")) == [refused]
            assert await one.renew(pen) == refused
            ended = b"head of the end" + pack_end(1, 4, "cancelled")
            assert await heard(listener, pen.topic, 2) == [first.head + first.payload, ended]
            assert text_of(await two.read(pen)) == "text"

    async def test_an_end_before_the_first_piece_and_of_what_is_not_known(self) -> None:
        pen, unknown = self.pen(), self.pen()
        async with self.scribe() as scribe, await self.listening(pen.topic, unknown.topic) as listener:
            await scribe.begin(pen)
            none, found = await scribe.store.end([unknown.end(), pen.end("cancelled")])
            assert none is None
            ended = granted(found)
            assert ended is not None
            assert (ended.end, ended.length) == ("cancelled", 0)
            assert await heard(listener, pen.topic, 1) == [b"ended\n" + pack_end(0, 0, "cancelled")]
            assert await scribe.append(pen.say("late", "done")) == [Written(is_taken=False, end="cancelled")]
            assert await scribe.look(unknown.id) is None

    async def test_the_stream_of_a_dead_writer_is_ended_and_no_other(self) -> None:
        pen = self.pen()
        async with self.scribes(2) as (one, two), await self.listening(pen.topic) as listener:
            await one.begin(pen)
            alive = await two.end(pen.end("lost", is_of_dead=True))
            assert alive is not None
            assert alive.end == ""
            assert alive.left > 0
            assert await one.append(pen.say("text")) == [TAKEN]
            assert await one.renew(pen, SOON) == TAKEN
            for each in (one, two):  # as their clocks need not agree
                await each.until_dead(pen)
            results = await asyncio.gather(*[each.end(pen.end("lost", is_of_dead=True)) for each in (one, two, one)])
            for result in results:
                assert result is not None
                assert (result.end, result.pieces, result.length) == ("lost", 2, 4)
            assert [each[-2:] for each in await heard(listener, pen.topic, 2)] == [b"xt", pack_end(1, 4, "lost")[-2:]]
            assert await one.append(pen.say("more")) == [Written(is_taken=False, end="lost")]
            assert text_of(await one.read(pen)) == "text"

    async def test_a_slow_writer_goes_on_where_nobody_has_ended_its_stream(self) -> None:
        pen = self.pen(times=SOON)
        async with self.scribe() as scribe:
            await scribe.begin(pen)
            await scribe.until_dead(pen)
            assert await scribe.append(pen.say("slow")) == [TAKEN]
            assert (await scribe.seen(pen)).left == 0  # what it appends renews nothing
            assert await scribe.renew(pen, LONG) == TAKEN
            found = await scribe.end(pen.end("lost", is_of_dead=True))
            assert found is not None
            assert found.end == ""
            assert found.left > SOON.lease
            assert await scribe.append(pen.say(" but sure", "done")) == [Written(is_taken=True, end="done")]
            assert text_of(await scribe.read(pen)) == "slow but sure"

    async def test_an_end_and_a_last_piece_at_once(self) -> None:
        async with self.scribes(2) as (one, two):
            for _ in range(20):
                pen = self.pen()
                await one.begin(pen)
                (written,), ended = await asyncio.gather(one.append(pen.say("text", "done")), two.end(pen.end()))
                assert ended is not None
                assert ended.end == written.end == ("done" if written.is_taken else "cancelled")
                found = await two.read(pen)
                assert (found.stream.end, found.stream.pieces) == (written.end, 1)
                assert text_of(found) == ("text" if written.is_taken else "")

    async def test_many_are_renewed_and_looked_at_in_one_call(self) -> None:
        pens = [self.pen() for _ in range(3)]
        async with self.scribe() as scribe:
            await scribe.begin(pens[0])
            await scribe.begin(pens[2])
            assert await scribe.store.renew([pen.renew() for pen in pens]) == [TAKEN, REFUSED, TAKEN]
            looked = await scribe.store.look([pen.id for pen in pens])
            assert [isinstance(each, Summary) for each in looked] == [True, False, True]
            assert await scribe.store.renew([]) == []
            assert await scribe.store.look([]) == []
            assert await scribe.store.end([]) == []

    # --- forbidden

    async def test_an_id_that_is_forbidden(self) -> None:
        pen, other, there = self.pen(), self.pen(), self.pen()
        async with self.scribes(2) as (one, two):
            await one.begin(there)
            assert await two.store.forbid([pen.id, there.id], HOUR) == [None, None]
            assert (await one.begin(pen)).is_forbidden
            assert not (await one.begin(other)).is_forbidden
            assert await one.append(there.say("goes on", "done")) == [Written(is_taken=True, end="done")]

    async def test_an_id_that_is_forbidden_for_a_while(self) -> None:
        pen = self.pen()
        async with self.scribe() as scribe:
            await scribe.store.forbid([pen.id], 50)
            async with asyncio.timeout(DEADLINE):
                while (await scribe.begin(pen)).is_forbidden:
                    pass  # each asks the engine, and waits for it

    # --- gone, and forgotten

    async def test_what_has_ended_is_gone_in_its_time(self) -> None:
        times = Times(HOUR, 200, HOUR)
        by_writer, by_other = self.pen(times=times), self.pen(times=times)
        async with self.scribe() as scribe:
            for pen in (by_writer, by_other):
                await scribe.begin(pen)
                await scribe.append(pen.say("text"))
            await scribe.append(by_writer.say("", "done"))
            await scribe.end(by_other.end())
            for pen, end in ((by_writer, "done"), (by_other, "cancelled")):
                await scribe.until_gone(pen)
                await self.is_gone(scribe, pen)
                assert (await scribe.seen(pen)).end == end

    async def test_what_a_dead_writer_left_is_gone_in_its_time(self) -> None:
        pen = self.pen(times=Times(400, 400, HOUR))
        async with self.scribe() as scribe, await self.listening(pen.topic) as listener:
            await scribe.begin(pen)
            await scribe.append(pen.say("text"))
            await scribe.until_gone(pen)
            await self.is_gone(scribe, pen)
            assert await scribe.end(pen.end("lost", is_of_dead=True)) is not None
            await self.is_gone(scribe, pen)
            await heard(listener, pen.topic, 1)

    async def is_gone(self, scribe: Scribe, pen: Pen) -> None:
        """Check that nothing is left of a stream, and that nothing brings it back."""
        assert not (await scribe.append(pen.say("more")))[0].is_taken
        assert not (await scribe.renew(pen, LONG)).is_taken
        assert await scribe.listed(pen.topic) == []
        found = await scribe.read(pen)
        assert (found.stream.is_gone, found.payloads) == (True, [])
        for other in (pen.other(), Pen(pen.id, self.topic())):
            stream = (await scribe.begin(other)).stream
            assert (stream.is_gone, stream.writer, stream.topic) == (True, pen.writer, pen.topic)
            assert not (await scribe.append(other.say("no")))[0].is_taken

    async def test_an_id_that_is_forgotten_begins_anew(self) -> None:
        for ends in (True, False):
            for elsewhere in (True, False):
                pen = self.pen(times=Times(100, 50, 50))
                anew = Pen(pen.id, self.topic() if elsewhere else pen.topic, "anew")
                async with self.scribe() as scribe:
                    await scribe.begin(pen)
                    await scribe.append(pen.say("old", "done" if ends else ""))
                    await scribe.until(pen, lambda found: found is None)
                    assert await scribe.append(pen.say("no")) == [REFUSED]
                    assert await scribe.renew(pen) == REFUSED
                    stream = (await scribe.begin(anew)).stream
                    assert (stream.writer, stream.topic, stream.pieces, stream.end) == (anew.writer, anew.topic, 0, "")
                    await scribe.append(anew.say("new"))
                    assert text_of(await scribe.read(anew)) == "new"
                    assert await scribe.listed(anew.topic) == [anew.id]
                    assert await scribe.append(pen.say("no")) == [REFUSED]

    async def test_times_are_those_of_the_last_renewal(self) -> None:
        pen = self.pen()
        async with self.scribe() as scribe:
            await scribe.begin(pen)
            await scribe.append(pen.say("text"))
            assert await scribe.renew(pen, Times(HOUR, 50, 50)) == TAKEN
            await scribe.append(pen.say("", "done"))
            await scribe.until(pen, lambda found: found is None)
            brief = self.pen(times=Times(400, 400, 400))
            await scribe.begin(brief)
            await scribe.append(brief.say("text"))
            assert await scribe.renew(brief, LONG) == TAKEN
            await scribe.until(brief, lambda found: found is not None and found.age > 1300)
            found = await scribe.seen(brief)
            assert (found.is_gone, found.left > 0) == (False, True)
            assert text_of(await scribe.read(brief)) == "text"
            assert await scribe.listed(brief.topic) == [brief.id]
