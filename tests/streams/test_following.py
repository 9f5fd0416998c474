"""Following: what is missed is read, in order and once; what the engine has lost ends, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from tests.support import DEADLINE, eventually
from tests.support.clocks import HandClock
from velocity_ws.history.items import Refused
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.hub import Hub
from velocity_ws.streams import following as streams_following
from velocity_ws.streams.asking import Asking
from velocity_ws.streams.copies import StreamCopy
from velocity_ws.streams.entrances import Entrances
from velocity_ws.streams.following import Following
from velocity_ws.streams.items import WRITER_SIZE, Append, Begin, End, Ending, Part, Query, Summary, Times
from velocity_ws.streams.link import StreamLink
from velocity_ws.streams.memory import MemoryStreams
from velocity_ws.streams.pieces import HEADER_SIZE, Piece, pack, unpack
from velocity_ws.streams.room_streams import RoomStreams
from velocity_ws.streams.watching import Watching
from velocity_ws.streams.wire import Heads

NODE, ROOM, TOPIC = "0" * 11, "chat", "velocity.room.chat"
TIMES = Times(600_000, 60_000, 600_000)
_names = itertools.count()


class Store(MemoryStreams):
    """A store in this process.

    Attributes:
        reads: how often it was read.
        looks: how often it was asked what there is.
        is_held: whether neither is answered yet.
        go_on: set when it is answered.
    """

    def __init__(self) -> None:
        super().__init__(f"memory://following-{next(_names)}")
        self.reads = 0
        self.is_held = False
        self.go_on = asyncio.Event()
        self.looks = 0

    async def look(self, ids: Sequence[str]) -> list[Summary | Refused | None]:
        found = await super().look(ids)
        self.looks += 1
        if self.is_held:
            await self.go_on.wait()
        return found

    async def read(self, queries: Sequence[Query]) -> list[Part | Refused | None]:
        found = await super().read(queries)
        self.reads += 1
        if self.is_held:
            await self.go_on.wait()
        return found

    def rewind(self, id_: str, pieces: int) -> None:
        """Lose what came behind some pieces, as an engine does that was set back."""
        engine = self._engine
        assert engine is not None
        stream = engine.streams[id_]
        del stream.payloads[pieces:], stream.starts[pieces:]
        stream.length = unpack(stream.payloads[-1]).stop if pieces else 0

    def forget(self, id_: str) -> None:
        """Lose a stream altogether."""
        assert self._engine is not None
        del self._engine.streams[id_]


class Room:
    """A node that follows a room, and a writer elsewhere.

    Attributes:
        given: what was given to who keeps up: where it begins, what was said, and the end.
        knew: how many streams there were when it was known which there are.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.link = StreamLink(store, timeout=DEADLINE)
        self.clock = HandClock()
        self.given: list[tuple[int, str, End]] = []
        self.knew: int | None = None
        self.following = Following(self.link, self, self._wait_heard, keep=1 << 20, lease=10.0, clock=self.clock)
        self.writer = secrets.token_bytes(WRITER_SIZE)
        self.is_heard = asyncio.Event()
        self.is_heard.set()
        self._number = self._length = 0

    async def _wait_heard(self, room: str) -> bool:
        return await self.is_heard.wait()

    async def ask(self) -> tuple[int, End]:
        """Have a member ask for the stream by its id: how much it has said, and its end."""
        asking = Asking(self.link, NODE, TIMES, lambda _: TOPIC)
        return await Entrances(Hub(), cast("Any", None), self.following, asking).find("a", ROOM)

    def give(self, copy: StreamCopy, piece: Piece, message: PreparedMessage) -> None:
        assert message.size
        assert piece.stop == copy.length
        self.given.append((piece.start, piece.data.decode(), piece.end))

    def known(self, room: RoomStreams) -> None:
        self.knew = len(room.copies)

    def forget(self, room: RoomStreams) -> None:
        """There are no members."""

    @property
    def text(self) -> str:
        """What was given; without a hole, and nothing twice."""
        found = ""
        for start, text, _ in self.given:
            assert start == len(found)
            found += text
        return found

    @property
    def ends(self) -> list[End]:
        return [end for _, _, end in self.given if end]

    @property
    def copy(self) -> StreamCopy:
        return self.following.rooms[ROOM].copies["a"]

    def starts_again(self) -> None:
        """There is another writer, who has said nothing."""
        self.writer = secrets.token_bytes(WRITER_SIZE)
        self._number = self._length = 0

    async def begin(self) -> None:
        await self.link.begin(Begin("a", TOPIC, ROOM, self.writer, TIMES))

    async def say(self, text: str, end: End = "", *, is_heard: bool = True) -> bytes:
        """Have the writer store a piece, which the node may not hear; the piece."""
        payload = pack(Piece(self._number, self._length, len(text), "text" if text else "", end, text.encode()))
        head = Heads(NODE, ROOM, "a").of(len(payload))
        (written,) = await self.link.append([Append("a", TOPIC, self.writer, payload, head)])
        assert not isinstance(written, Refused)
        assert written.is_taken
        self._number += 1
        self._length += len(text)
        if is_heard:
            self.hear(payload)
        return payload

    def hear(self, payload: bytes) -> None:
        self.following.heard(ROOM, "a", payload)

    async def open(self) -> None:
        self.following.open(ROOM, TOPIC)
        await eventually(lambda: self.knew is not None)


@asynccontextmanager
async def followed() -> AsyncIterator[Room]:
    room = Room(Store())
    await room.link.start(DEADLINE)
    room.following.start()
    try:
        yield room
    finally:
        room.store.go_on.set()
        await room.following.stop()
        await room.link.stop()


async def test_what_is_heard_is_given() -> None:
    async with followed() as room:
        await room.open()
        await room.begin()
        for word in ("one ", "", "two ", "three"):
            await room.say(word)
        await room.say("", "done")
        assert (room.text, room.ends, room.store.reads) == ("one two three", ["done"], 0)


async def test_what_is_missed_is_read_once_and_given_in_order() -> None:
    async with followed() as room:
        await room.open()
        await room.begin()
        await room.say("one ")
        for word in ("two ", "", "three "):
            await room.say(word, is_heard=False)
        again = await room.say("four ")
        room.hear(again)
        await eventually(lambda: room.text == "one two three four ")
        room.hear(again)
        await room.say("five", "done")
        assert (room.text, room.ends, room.store.reads) == ("one two three four five", ["done"], 1)


async def test_what_is_heard_while_it_is_read_is_not_missed() -> None:
    async with followed() as room:
        await room.open()
        await room.begin()
        await room.say("one ", is_heard=False)
        room.store.is_held = True
        await room.say("two ")
        await eventually(lambda: room.store.reads == 1)
        await room.say("three")
        room.store.is_held = False
        room.store.go_on.set()
        await eventually(lambda: room.text == "one two three")


async def test_streams_that_there_were_are_known_with_what_is_said_meanwhile() -> None:
    async with followed() as room:
        await room.begin()
        await room.say("before ")
        room.is_heard.clear()
        room.following.open(ROOM, TOPIC)
        await room.say("meanwhile ")
        room.is_heard.set()
        await eventually(lambda: room.knew == 1)
        await eventually(lambda: room.copy.length == len("before meanwhile "))
        await room.say("after")
        assert room.copy.length == len("before meanwhile after")


async def test_a_long_stream_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_following, "PAGE", 100)
    async with followed() as room:
        await room.open()
        await room.begin()
        for _ in range(20):
            await room.say("x" * 50, is_heard=False)
        await room.say("y", "error")
        await eventually(lambda: room.ends == ["error"])
        assert room.text == "x" * 1000 + "y"
        assert room.store.reads > 5


async def test_a_stream_that_an_engine_has_lost_is_lost() -> None:
    async with followed() as room:
        await room.open()
        await room.begin()
        await room.say("text")
        room.store.forget("a")
        room.following.repair(room.copy)
        await eventually(lambda: room.ends == ["lost"])
        assert room.text == "text"


@pytest.mark.parametrize("has_ended", [False, True])
async def test_an_id_that_is_begun_anew_is_another_stream(has_ended: bool) -> None:
    async with followed() as room:
        await room.open()
        await room.begin()
        await room.say("one ")
        await room.say("two", "lost" if has_ended else "")
        given = list(room.given)
        room.store.forget("a")
        room.starts_again()
        await room.begin()
        first = await room.say("three", is_heard=False)
        room.hear(first)
        await eventually(lambda: room.given[-1][1] == "three")
        lost: list[tuple[int, str, End]] = [] if has_ended else [(7, "", "lost")]
        assert room.given == [*given, *lost, (0, "three", "")]
        room.hear(first)  # late, and once more
        await room.say(" four", "done")
        assert room.given[-1] == (8 - 3, " four", "done")


@pytest.mark.parametrize("end", ["done", ""])
async def test_what_was_asked_for_before_it_was_heard_is_given_to_all_the_same(end: End) -> None:
    async with followed() as room:
        await room.open()
        room.clock.advance(60)
        await room.begin()
        payload = await room.say("all of it", end, is_heard=False)
        assert await room.ask() == (9, end)
        room.hear(payload)
        if not end:
            await room.say(" and more", "done")
        await eventually(lambda: room.ends == ["done"])
        assert room.text == "all of it" + ("" if end else " and more")


async def test_what_is_known_no_more_is_not_given_again_because_one_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine has it still, as it keeps it for longer, or as so many have ended since."""
    monkeypatch.setattr("velocity_ws.streams.watching.MOST_ENDED", 0)
    async with followed() as room:
        await room.open()
        room.clock.advance(60)
        await room.begin()
        await room.say("all of it", "done")
        given = list(room.given)
        watching = Watching(room.following, room.link, NODE, lease=10.0, ttl=600.0, clock=room.clock)
        watching._forget_old()
        assert room.following.rooms[ROOM].copies == {}
        assert await room.ask() == (9, "done")
        assert room.following._tasks == set()
        assert (room.copy.length, room.copy.end, room.given) == (9, "done", given)


async def test_what_was_asked_for_before_the_room_was_known_has_all_that_was_said_until_then() -> None:
    async with followed() as room:
        room.is_heard.clear()
        room.following.open(ROOM, TOPIC)
        await room.begin()
        await room.say("one ", is_heard=False)
        assert await room.ask() == (4, "")
        await room.say("two", "done", is_heard=False)  # nothing of the room is heard yet
        room.is_heard.set()
        await eventually(lambda: (room.copy.length, room.copy.end) == (7, "done"))


async def test_an_answer_that_is_older_than_what_was_heard_meanwhile_loses_no_stream() -> None:
    async with followed() as room:
        await room.begin()
        first = await room.say("one ", is_heard=False)
        await room.open()  # the engine tells of the first piece, and so it is late when it is heard
        looks, room.store.is_held = room.store.looks, True
        room.hear(first)
        await eventually(lambda: room.store.looks > looks)
        await room.say("two ")
        await room.say("three", "done")
        room.store.go_on.set()
        await eventually(lambda: room.following._tasks == set())
        assert [text for _, text, _ in room.given] == ["two ", "three"]
        assert room.ends == ["done"]


async def test_an_id_that_was_begun_anew_unheard_and_says_more_than_before_is_another_stream() -> None:
    async with followed() as room:
        await room.begin()
        await room.say("one ", is_heard=False)
        await room.open()  # so that it is the engine that tells of it
        await room.say("two")
        room.store.forget("a")
        room.starts_again()
        await room.begin()
        for word in ("three ", "four ", "five"):
            await room.say(word, is_heard=False)
        room.following.look_soon()
        room.following.repair(room.copy)
        await eventually(lambda: room.given[-1][1].endswith("five"))
        assert room.given[:2] == [(4, "two", ""), (7, "", "lost")]
        assert "".join(text for _, text, _ in room.given[2:]) == "three four five"
        assert room.given[2][0] == 0


async def test_an_end_that_comes_after_an_engine_lost_pieces_is_told() -> None:
    async with followed() as room:
        await room.open()
        await room.begin()
        for word in ("one ", "two ", "three ", "four "):
            await room.say(word)
        room.store.rewind("a", 1)
        head = Heads(NODE, ROOM, "a").of(HEADER_SIZE)
        await room.link.end(Ending("a", TOPIC, "lost", head))
        room.following.repair(room.copy)
        await eventually(lambda: room.ends == ["lost"])
        assert room.text == "one two three four "


async def test_what_is_no_piece_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async with followed() as room:
        await room.open()
        await room.begin()
        room.hear(b"nonsense")
        await room.say("text", "done")
        assert (room.text, room.ends) == ("text", ["done"])
    assert "dropped a piece of stream 'a' that is none: it is too short" in caplog.text


@pytest.mark.parametrize("is_forgotten", [False, True])
async def test_what_is_read_for_a_room_that_nobody_is_in_any_more_is_given_to_nobody(is_forgotten: bool) -> None:
    async with followed() as room:
        await room.open()
        await room.begin()
        await room.say("one ")
        await room.say("two ", is_heard=False)
        if is_forgotten:
            room.store.forget("a")
        room.store.is_held = True
        room.following.repair(room.copy)
        copy = room.copy
        await eventually(lambda: room.store.reads == 1)
        room.following.close(ROOM)
        room.store.go_on.set()
        await copy.repaired.wait()
        assert (room.text, room.ends) == ("one ", [])


async def test_a_room_that_nobody_is_in_is_followed_no_more() -> None:
    async with followed() as room:
        await room.open()
        await room.begin()
        payload = await room.say("text")
        copy = room.copy
        room.following.close(ROOM)
        room.hear(payload)
        assert not room.following.is_followed(copy)
        assert (room.following.running, room.following.copies.size) == ({}, 0)
        room.following.close(ROOM)
