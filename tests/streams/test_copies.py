"""Copies: a reader that begins anywhere, however slow, gets the text in contiguous messages of a bounded size."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.streams import copies as stream_copies
from velocity_ws.streams.copies import MESSAGE, Copies, StreamCopy
from velocity_ws.streams.items import End, Summary
from velocity_ws.streams.pieces import Piece, join

UNBOUNDED = 1 << 30
SMALL = 1536
"""Bytes of a message, where a test has short texts."""
WORDS = ["a", "é", "𝄞", "\x00", '"', "\u2028", "0123456789" * 30]


class Story:
    """A stream as its writer says it, and the copy of a node that hears it."""

    def __init__(self, all_: Copies, chance: random.Random, id_: str = "a", of_items: bool = False) -> None:
        self.copy = StreamCopy(id_, "chat:7", "velocity.room.chat", all_)
        self.pieces: list[Piece] = []
        self.of_items = of_items
        self._chance = chance

    @property
    def length(self) -> int:
        return self.pieces[-1].stop if self.pieces else 0

    @property
    def whole(self) -> Any:
        """All that was said."""
        if self.of_items:
            return [item for piece in self.pieces for item in json.loads(b"[%b]" % piece.data)]
        return b"".join(piece.data for piece in self.pieces).decode()

    def say(self, end: End = "") -> PreparedMessage:
        """Say something, or end; the message for those who keep up."""
        words = [] if end else self._chance.choices(WORDS, k=self._chance.randint(0, 4))
        kind, number = ("items" if self.of_items else "text"), len(self.pieces)
        data = ",".join(map(json.dumps, words)) if self.of_items else "".join(words)
        length = len(words) if self.of_items else len(data)
        piece = Piece(number, self.length, length, kind if data else "", end, data.encode())  # type: ignore[arg-type]
        self.pieces.append(piece)
        return self.copy.heard(piece)

    def page(self, cursor: int) -> Piece:
        """What an engine has from there on."""
        return join([piece.after(cursor) for piece in self.pieces])._replace(start=cursor)

    def fill(self) -> None:
        """Read what is not kept."""
        kept = self.copy.kept_from
        self.copy.fill([piece.until(kept) for piece in self.pieces if piece.length and piece.start < kept])


class Reader:
    """What one reader has of a stream."""

    def __init__(self, story: Story, cursor: int, most: int) -> None:
        self.story = story
        self.cursor = self.began = cursor
        self.had: Any = [] if story.of_items else ""
        self.end: str | None = None
        self._most = most

    def take(self, message: PreparedMessage) -> None:
        data = json.loads(message.payload)["data"]
        assert data["id"] == self.story.copy.id
        assert data["from"] == self.cursor
        assert self.end is None
        found = data.get("items", []) if self.story.of_items else data.get("text", "")
        assert message.size <= self._most or len(found) == 1
        self.had += found
        self.cursor += len(found)
        self.end = data.get("end")

    def read_on(self) -> None:
        """Get the next message, if there is one."""
        copy = self.story.copy
        if self.end is not None or (self.cursor == copy.length and not copy.end):
            return
        found = copy.message(self.cursor)
        if found is None:
            assert self.cursor < copy.kept_from
            found = copy.message_of(self.story.page(self.cursor))
        message, stop = found
        self.take(message)
        assert stop == self.cursor


def kept(stories: list[Story]) -> int:
    return sum(story.copy.size for story in stories)


@given(st.integers(0, 2**32), st.sampled_from([0, 300, 2000, UNBOUNDED]), st.booleans())
@example(7, UNBOUNDED, True)
def test_every_reader_has_the_text_whatever_is_kept(seed: int, limit: int, of_items: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_copies, "MESSAGE", SMALL)
        patch.setattr(stream_copies, "_CHUNK", 256)
        chance = random.Random(seed)
        all_ = Copies(limit)
        stories = [Story(all_, chance, id_, of_items) for id_ in ("a", "b")]
        readers: list[Reader] = []
        for _ in range(60):
            story = chance.choice(stories)
            step = chance.random()
            if step < 0.4:
                keeping_up = [reader for reader in readers if reader.story is story and reader.cursor == story.length]
                message = story.say()
                for reader in keeping_up:
                    if chance.random() < 0.5 and len(message.payload) < SMALL:
                        reader.take(message)
            elif step < 0.6:
                readers.append(Reader(story, chance.randint(0, story.length), SMALL))
            elif step < 0.65 and limit:
                story.fill()
            elif step < 0.7:
                all_.let_go(story.copy)
            elif readers:
                chance.choice(readers).read_on()
            assert all_.size == kept(stories) <= limit
        for story in stories:
            story.say("done")
        for reader in readers:
            while reader.end is None:
                reader.read_on()
            assert reader.had == reader.story.whole[reader.began :]
            assert reader.end == "done"


@pytest.mark.parametrize("character", ["a", "é", "\x01", "𝄞"])
def test_no_message_is_longer_than_it_may_be(character: str) -> None:
    story = Story(Copies(UNBOUNDED), random.Random(0), "\x01" * 256)
    text = (character * 10_000).encode()
    for number in range(100):
        story.pieces.append(Piece(number, number * 10_000, 10_000, "text", "", text))
        story.copy.heard(story.pieces[-1])
    story.say("done")
    reader = Reader(story, 17, MESSAGE)
    while reader.end is None:
        reader.read_on()
    assert reader.had == character * (1_000_000 - 17)


def test_an_item_that_is_longer_comes_alone() -> None:
    story = Story(Copies(UNBOUNDED), random.Random(0), of_items=True)
    for number, item in enumerate([1, "x" * (MESSAGE + 1), 2]):
        story.pieces.append(Piece(number, number, 1, "items", "", json.dumps(item).encode()))
        story.copy.heard(story.pieces[-1])
    reader = Reader(story, 0, MESSAGE)
    for cursor in (1, 2, 3):
        reader.read_on()
        assert reader.cursor == cursor


def test_many_who_come_at_once_get_one_message() -> None:
    story = Story(Copies(UNBOUNDED), random.Random(1))
    story.say()
    story.say()
    first = story.copy.message(0)
    assert first is not None
    assert story.copy.message(0) == first
    story.say()
    story.say("done")
    later = story.copy.message(0)
    assert later is not None
    assert later != first
    assert story.copy.message(0) == later


def test_who_has_more_than_was_said_gets_nothing_yet() -> None:
    story = Story(Copies(UNBOUNDED), random.Random(1))
    story.say()
    assert story.copy.message(story.length + 1) is None


def test_what_was_not_used_for_longest_is_let_go() -> None:
    all_ = Copies(3000)
    stories = [Story(all_, random.Random(0), id_) for id_ in "abc"]
    for story in stories:
        piece = Piece(0, 0, 1000, "text", "", b"x" * 1000)
        story.pieces.append(piece)
        story.copy.heard(piece)
    assert stories[0].copy.message(0) is not None  # it is used
    stories[2].copy.heard(Piece(1, 1000, 1, "text", "", b"x"))
    assert [story.copy.size for story in stories] == [1000, 0, 1001]
    assert (stories[1].copy.kept_from, stories[1].copy.message(0)) == (1000, None)


def test_what_is_filled_is_counted_once() -> None:
    all_ = Copies(UNBOUNDED)
    story = Story(all_, random.Random(3))
    for _ in range(10):
        story.say()
    all_.let_go(story.copy)
    assert (all_.size, story.copy.size, story.copy.kept_from) == (0, 0, story.length)
    for _ in range(10):
        story.say()
    story.fill()
    assert story.copy.kept_from == 0
    assert all_.size == story.copy.size == sum(len(piece.data) for piece in story.pieces)
    all_.let_go(story.copy)
    assert all_.size == 0


def test_a_copy_begins_with_what_the_engine_says() -> None:
    copy = StreamCopy("a", "chat:7", "velocity.room.chat", Copies(UNBOUNDED))
    copy.learn(Summary("a", copy.topic, copy.room, b"w" * 16, 3, 40, "", 1000, 5))
    assert (copy.number, copy.length, copy.end, copy.kept_from) == (3, 40, "", 40)
    copy.heard(Piece(3, 40, 2, "text", "lost", b"ab"))
    assert copy.message(39) is None
    message = copy.message(40)
    assert message is not None
    assert json.loads(message[0].payload)["data"] == {"id": "a", "from": 40, "text": "ab", "end": "lost"}
