"""Stream deleting: the part of the contract about what is removed, notes, and several that write one stream.

Knows no engine.
"""

from __future__ import annotations

from velocity_ws.history.items import granted
from velocity_ws.streams.items import Deletion, Written
from velocity_ws.streams.pieces import unpack
from velocity_ws.testing.stream_engine import EngineOfStreams, Scribe, text_of
from velocity_ws.testing.stream_pen import Pen
from velocity_ws.testing.stream_writing import REFUSED, TAKEN

__all__ = ["StreamDeletingContract"]


class StreamDeletingContract(EngineOfStreams):
    """What is removed was never there; a note is that of the last piece; a number is taken once."""

    async def test_what_is_removed_can_begin_anew_at_once_in_another_room_too(self) -> None:
        pen = self.pen()
        new = Pen(pen.id, self.pen().topic, "another room")
        async with self.scribes(2) as (one, two):
            await one.begin(pen)
            await one.append(pen.say("old"))
            await _delete(two, pen.delete())
            assert await two.look(pen.id) is None
            assert await one.append(pen.say(" and late")) == [REFUSED]
            assert await one.renew(pen) == REFUSED
            assert await two.listed(pen.topic) == []
            begun = await two.begin(new)
            assert (begun.stream.writer, begun.stream.room, begun.stream.pieces) == (new.writer, "another room", 0)
            assert await one.append(pen.say(" and later")) == [REFUSED]
            assert await two.append(new.say("new", "done")) == [Written(is_taken=True, end="done")]
            assert text_of(await one.read(new)) == "new"
            await _delete(one, new.delete())
            assert await one.look(pen.id) is None

    async def test_what_has_another_writer_or_is_not_there_stays_as_it_is(self) -> None:
        pen, unknown = self.pen(), self.pen()
        async with self.scribe() as scribe:
            await scribe.begin(pen)
            await scribe.append(pen.say("text"))
            await _delete(scribe, pen.other().delete(), unknown.delete())
            found = await scribe.seen(pen)
            assert (found.writer, found.length) == (pen.writer, 4)
            await _delete(scribe, pen.delete(), pen.delete())
            assert await scribe.look(pen.id) is None

    async def test_the_note_is_that_of_the_last_piece(self) -> None:
        pen = self.pen()
        async with self.scribes(2) as (one, two):
            await one.begin(pen)
            assert (await two.seen(pen)).note == b""
            for data, note in ((b"", b"first"), (b"\x00\xff\r\n", b"n" * 3000), (b"more", b""), (b"", b"last")):
                assert await one.append(pen.pack(data, note)) == [TAKEN]
                assert (await two.seen(pen)).note == note
            await one.append(pen.pack(b"end", b"the end's", "done"))
            assert (await two.seen(pen)).note == b"the end's"
            part = await two.read(pen)
            pieces = [piece for payload in part.payloads if (piece := unpack(payload)).length]
            assert [(piece.kind, piece.data) for piece in pieces] == [
                ("bytes", b"\x00\xff\r\n"), ("bytes", b"more"), ("bytes", b"end"),
            ]  # fmt: skip
            assert [piece.start for piece in pieces] == [0, 4, 8]

    async def test_of_two_that_append_the_piece_of_one_number_one_is_taken(self) -> None:
        pen = self.pen()
        async with self.scribes(2) as (one, two):
            begun = await one.begin(pen)
            same = pen.other()
            same.writer = begun.stream.writer
            assert await one.append(pen.pack(b"one")) == [TAKEN]
            assert await two.append(same.pack(b"two")) == [REFUSED]
            same.number, same.start = 1, 3
            assert await two.append(same.pack(b"two")) == [TAKEN]
            assert await one.append(pen.pack(b"three")) == [REFUSED]
            pen.number, pen.start = 2, 6
            assert await one.append(pen.pack(b"three", end="done")) == [Written(is_taken=True, end="done")]
            part = await two.read(pen)
            assert b"".join(unpack(payload).data for payload in part.payloads) == b"onetwothree"


async def _delete(scribe: Scribe, *deletions: Deletion) -> None:
    for result in await scribe.store.delete(deletions):
        granted(result)
