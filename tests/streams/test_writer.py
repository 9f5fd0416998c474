"""Writer: what is said is stored in order, once, and ended once; who writes waits while much waits."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import eventually
from velocity_ws import StreamEnded, StreamTooLarge
from velocity_ws.cluster.envelopes import StreamPiece, decode_body
from velocity_ws.streams.items import WRITER_SIZE, Begin, End, Times, Written
from velocity_ws.streams.pieces import Piece, join, unpack
from velocity_ws.streams.writer import MOST_WAITING, PIECE, StreamWriter

TIMES = Times(10_000, 60_000, 600_000)
BEGIN = Begin("a", "velocity.room.chat", "chat", b"w" * WRITER_SIZE, TIMES)
LIMIT = 16 * 1024 * 1024
MAX_PAYLOAD = 1024 * 1024


class Stores:
    """Has what a writer says stored when a test says so.

    Attributes:
        has_work: whether the writer has something to store.
        is_urgent: whether the last of it was urgent.
        is_forgotten: whether the writer has nothing more.
        taken: the payloads that the writer was told of as taken, with the room and the id.
        stored: the pieces that the engine has.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.has_work = self.is_urgent = self.is_forgotten = False
        self.taken: list[tuple[str, str, bytes]] = []
        self.stored: list[Piece] = []
        self.writer = StreamWriter(BEGIN, "0" * 11, limit, MAX_PAYLOAD, self, lambda *took: self.taken.append(took))
        self.deaths: list[str] = []
        self.writer.when_dead = self.deaths.append

    def add(self, writer: StreamWriter, *, is_urgent: bool = False) -> None:
        assert writer is self.writer
        assert not self.is_forgotten
        self.has_work, self.is_urgent = True, is_urgent

    def forget(self, writer: StreamWriter) -> None:
        assert writer is self.writer
        self.is_forgotten, self.has_work = True, False

    def store(self, *, is_told: bool = True) -> None:
        """Store one piece, of which the writer may not be told; then it is stored again."""
        append = self.writer.next()
        assert append == self.writer.next()
        assert append.writer == BEGIN.writer
        said = decode_body(append.head + append.payload)
        assert said == StreamPiece(BEGIN.room, BEGIN.id, append.payload)
        piece = unpack(append.payload)
        if piece.number == len(self.stored):
            self.stored.append(piece)
        assert self.stored[-1] == piece
        if is_told:
            self.has_work = False
            self.writer.answered(Written(True, piece.end))

    def store_all(self) -> None:
        while self.has_work:
            self.store()

    @property
    def text(self) -> str:
        return join(self.stored).data.decode()


async def test_what_is_said_is_stored_and_told_in_order() -> None:
    stores = Stores()
    for word in ("one ", "two ", "three"):
        await stores.writer.write(word)
        assert (stores.has_work, stores.is_urgent) == (True, False)
    stores.store()
    assert (stores.has_work, stores.text) == (False, "one two three")
    stores.writer.close("done")
    assert (stores.has_work, stores.is_urgent) == (True, True)
    stores.store()
    assert (stores.writer.end, stores.is_forgotten, await stores.writer.wait_over()) == ("done", True, "done")
    assert [unpack(payload) for _, _, payload in stores.taken] == stores.stored
    assert {took[:2] for took in stores.taken} == {("chat", "a")}
    assert [piece.end for piece in stores.stored] == ["", "done"]


async def test_a_stream_is_announced_before_it_says_anything() -> None:
    stores = Stores()
    stores.writer.announce()
    assert stores.is_urgent
    stores.store()
    assert stores.stored == [Piece(0, 0, 0, "", "", b"")]
    assert not stores.has_work


async def test_the_end_goes_along_with_what_waits() -> None:
    stores = Stores()
    await stores.writer.write("all")
    stores.writer.close("error")
    stores.writer.close("done")  # which is harmless
    stores.store_all()
    assert [(piece.data, piece.end) for piece in stores.stored] == [(b"all", "error")]


async def test_what_is_stored_meanwhile_is_not_mixed_with_what_is_said() -> None:
    stores = Stores()
    await stores.writer.write("one ")
    pending = stores.writer.next()
    await stores.writer.write("two")
    stores.writer.close("done")
    assert stores.writer.next() == pending
    stores.store_all()
    assert (stores.text, len(stores.stored)) == ("one two", 2)


async def test_who_writes_waits_while_much_waits() -> None:
    stores = Stores()
    part = "x" * 8192
    writes = [asyncio.create_task(stores.writer.write(part)) for _ in range(MOST_WAITING // len(part) + 3)]
    await asyncio.sleep(0)
    assert [write.done() for write in writes].count(False) == 3
    assert stores.is_urgent
    while stores.has_work:
        stores.store()
        await asyncio.sleep(0)
        if any(not write.done() for write in writes):
            assert len(stores.stored) * PIECE <= MOST_WAITING // 2 + PIECE
    await asyncio.gather(*writes)
    assert stores.text == part * len(writes)
    assert max(len(piece.data) for piece in stores.stored) <= PIECE


async def test_who_waits_is_told_when_the_stream_ends() -> None:
    for end in ("cancelled", "lost"):
        stores = Stores()
        waiting = asyncio.create_task(stores.writer.write("x" * (MOST_WAITING + 1)))
        await asyncio.sleep(0)
        assert not waiting.done()
        stores.writer.close("cancelled") if end == "cancelled" else stores.writer.dead("lost")
        with pytest.raises(StreamEnded) as error:
            await waiting
        assert error.value.end == end


async def test_a_writer_that_gives_up_waiting_hurts_nobody() -> None:
    stores = Stores()
    waiting = asyncio.create_task(stores.writer.write("x" * (MOST_WAITING + 1)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    stores.store_all()
    await stores.writer.write("more")
    stores.store_all()
    assert stores.text.endswith("xmore")


async def test_what_would_be_too_large_is_refused_and_the_stream_goes_on() -> None:
    stores = Stores(limit=5)
    await stores.writer.write("123")
    with pytest.raises(StreamTooLarge) as error:
        await stores.writer.write("456")
    assert (error.value.stream_id, error.value.limit) == ("a", 5)
    await stores.writer.write("45")
    stores.writer.close("done")
    stores.store_all()
    assert stores.text == "12345"


async def test_an_item_that_an_engine_cannot_take_is_refused_and_the_largest_is_stored() -> None:
    stores = Stores()
    with pytest.raises(StreamTooLarge, match="was given an item of more than") as error:
        await stores.writer.write(["x" * MAX_PAYLOAD])
    most = error.value.limit
    writing = asyncio.create_task(stores.writer.write(["x" * (most - 4)]))
    await eventually(lambda: stores.has_work)
    append = stores.writer.next()
    assert len(append.head + append.payload) == MAX_PAYLOAD
    stores.store_all()
    await writing


@pytest.mark.parametrize(("written", "end"), [(Written(False, "cancelled"), "cancelled"), (Written(False), "lost")])
async def test_a_stream_that_was_ended_otherwise_takes_nothing_more(written: Written, end: End) -> None:
    stores = Stores()
    await stores.writer.write("one")
    stores.writer.next()
    await stores.writer.write("two")
    stores.writer.answered(written)
    assert (stores.writer.end, stores.deaths, stores.is_forgotten) == (end, [end], True)
    assert stores.taken == []
    with pytest.raises(StreamEnded):
        await stores.writer.write("three")
    stores.writer.close("done")
    stores.writer.dead("lost")
    assert (await stores.writer.wait_over(), stores.deaths) == (end, [end])


async def test_an_answer_that_comes_too_late_changes_nothing() -> None:
    stores = Stores()
    await stores.writer.write("one")
    stores.writer.next()
    stores.writer.dead("lost")
    stores.writer.answered(Written(True))
    assert (stores.writer.end, stores.taken) == ("lost", [])


async def test_nothing_said_is_nothing_to_store() -> None:
    stores = Stores()
    await stores.writer.write("")
    await stores.writer.write(b"\xe2")
    assert not stores.has_work
    await stores.writer.write(b"\x82\xac")
    await eventually(lambda: stores.has_work)


async def runs_at_random(seed: int) -> None:
    chance = random.Random(seed)
    stores = Stores()
    words: list[str] = []
    for _ in range(40):
        step = chance.random()
        if step < 0.6:
            words.append(chance.choice(["", "a", "𝄞", "\u2028", "x" * 50_000]))
            await stores.writer.write(words[-1])
        elif stores.has_work:
            stores.store(is_told=chance.random() < 0.7)
        while stores.writer._gathering.waiting > MOST_WAITING // 2:
            stores.store()
    stores.writer.close("done")
    while not stores.writer.is_over:
        stores.store(is_told=chance.random() < 0.7)
    assert stores.text == "".join(words)
    assert [piece.number for piece in stores.stored] == list(range(len(stores.stored)))
    assert [unpack(payload) for _, _, payload in stores.taken] == stores.stored
    assert [piece.end for piece in stores.stored] == [""] * (len(stores.stored) - 1) + ["done"]


@given(st.integers(0, 2**32))
def test_what_is_stored_again_is_stored_once(seed: int) -> None:
    asyncio.run(runs_at_random(seed))
