"""Requests: what producers send is taken once and in order, whatever they send again, leave out or begin anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.streams.items import WRITER_SIZE, End, Part, Summary
from velocity_ws.streams.notes import MOST_PRODUCERS, Meta, Note, Producer
from velocity_ws.streams.pieces import Piece, pack
from velocity_ws.streams.requests import Appended, Found, Post, Problem, judge, readable

META = Meta("text/plain", "tag")


def found(note: Note | None = None, end: End = "") -> Found:
    return Found(Summary("a", "topic", "", b"w" * WRITER_SIZE, 1, 0, end, 0, 0), note)


def judged(stream: Found, type_: str | None = "text/plain", seq: str | None = None, **more: Any) -> Appended | None:
    now = more.pop("now", 0)
    return judge(stream, Post(type_, seq, **more), now)


def problem(*arguments: Any, **more: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        judged(*arguments, **more)
    return caught.value


@dataclass
class Stream:
    """A stream that does what `judge` says, and what each producer has in it, in the words of the protocol.

    Attributes:
        said: producer, epoch and number of each append that was taken.
        lives: the epoch of each producer, and the number that it is to send next.
    """

    note: Note = field(default_factory=lambda: Note(META))
    end: End = ""
    said: list[tuple[str, int, int]] = field(default_factory=list)
    lives: dict[str, tuple[int, int]] = field(default_factory=dict)
    closed_by: Producer | None = None

    def send(self, producer: Producer, *, is_closing: bool) -> str:
        """What becomes of an append."""
        try:
            done = judge(found(self.note, self.end), Post("text/plain", None, producer, is_closing), 0)
        except Problem as problem:
            return self._refused(problem, producer)
        if done is not None:
            assert not done.is_new
            return "known"
        self.said.append((producer.id, producer.epoch, producer.seq))
        closed_by = producer if is_closing else None
        self.note = msgspec.structs.replace(self.note.with_producer(producer, 0), closed_by=closed_by)
        self.end = "done" if is_closing else ""
        return "taken"

    def _refused(self, refusal: Problem, producer: Producer) -> str:
        if refusal.why == "hole":
            assert refusal.producer == Producer(producer.id, producer.epoch, self.lives.get(producer.id, (0, 0))[1])
            assert refusal.received == producer
        if refusal.why == "stale":
            assert refusal.producer is not None
            assert refusal.producer.epoch == self.lives[producer.id][0]
        return refusal.why

    def expected(self, producer: Producer, *, is_closing: bool) -> str:
        """The same as the protocol says it."""
        epoch, next_ = self.lives.get(producer.id, (producer.epoch, 0))
        if self.end:
            is_known = producer.id in self.lives and producer.epoch == epoch and producer.seq < next_
            return "known" if is_known else "closed"
        if producer.epoch < epoch:
            return "stale"
        if producer.epoch > epoch:
            epoch, next_ = producer.epoch, 0
            if producer.seq:
                return "invalid"
        if producer.seq < next_:
            return "known"
        if producer.seq > next_:
            return "hole"
        self.lives[producer.id] = epoch, next_ + 1
        return "taken"


sends = st.tuples(
    st.builds(Producer, st.sampled_from("pq"), st.integers(0, 2), st.integers(0, 3)),
    st.integers(0, 30).map(lambda n: not n),
)


@given(st.lists(sends, max_size=40))
def test_what_producers_send_is_taken_once_and_in_order(sent: list[tuple[Producer, bool]]) -> None:
    stream = Stream()
    for producer, is_closing in sent:
        assert stream.expected(producer, is_closing=is_closing) == stream.send(producer, is_closing=is_closing)
    assert len(set(stream.said)) == len(stream.said)
    for id_ in "pq":
        own = [(epoch, seq) for who, epoch, seq in stream.said if who == id_]
        assert own == sorted(own)
        for (epoch, seq), before in zip(own, [None, *own], strict=False):
            assert seq == (0 if before is None or before[0] != epoch else before[1] + 1)


def test_a_producer_that_was_never_heard_begins_with_its_first_in_any_life() -> None:
    assert judged(found(Note(META)), producer=Producer("p", 7, 0)) is None
    assert problem(found(Note(META)), producer=Producer("p", 7, 1)).why == "hole"


def test_nobody_writes_a_stream_of_the_application() -> None:
    assert problem(found()).why == "fixed"
    assert problem(found(end="done")).why == "fixed"


def test_a_closed_stream_takes_nothing_but_what_closed_it() -> None:
    producer = Producer("p", 1, 4)
    closed = found(Note(META, producers={"p": (1, 4)}, closed_by=producer), "done")
    again = judged(closed, producer=producer, is_closing=True)
    assert again == Appended(closed, is_new=False, producer=producer)
    assert judged(closed, None, is_closing=True) == Appended(closed, is_new=False)
    for more in ({}, {"is_closing": True}, {"producer": Producer("p", 1, 5)}, {"producer": Producer("q", 0, 0)}):
        assert problem(closed, **more).why == "closed"
    assert problem(closed, producer=Producer("p", 0, 2)).why == "closed"  # of another life
    late = judged(closed, producer=Producer("p", 1, 2))
    assert late == Appended(closed, is_new=False, producer=producer)
    assert problem(closed, "text/html").why == "closed"


def test_what_is_appended_is_of_the_content_type() -> None:
    assert judged(found(Note(META)), "TEXT/plain; charset=utf-8") is None
    assert problem(found(Note(META)), "text/html").why == "conflict"
    assert judged(found(Note(META)), None, is_closing=True) is None
    assert problem(found(Note(META)), "text/html", producer=Producer("p", 0, 0)).why == "conflict"


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(texts, texts)
def test_a_sequence_text_is_beyond_the_last_by_its_bytes(last: str, seq: str) -> None:
    stream = found(Note(META, seq=last))
    if seq.encode() > last.encode():
        assert judged(stream, seq=seq) is None
    else:
        assert problem(stream, seq=seq).why == "conflict"
    assert judged(found(Note(META)), seq=seq) is None
    assert judged(stream) is None


def test_what_was_taken_already_is_so_though_its_sequence_text_is_not_beyond_the_last() -> None:
    stream = found(Note(META, seq="5", producers={"p": (0, 3)}))
    done = judged(stream, seq="5", producer=Producer("p", 0, 3))
    assert done == Appended(stream, is_new=False, producer=Producer("p", 0, 3))


def test_what_cannot_be_read_ends_what_was_read() -> None:
    one, two = Piece(0, 0, 1, "text", "", b"a"), Piece(1, 1, 1, "text", "", b"b")
    assert readable(None) == []
    assert readable(Part(found().stream, [pack(one), b"none", pack(two)])) == [one]


def test_a_producer_too_many_is_refused_and_those_that_are_known_go_on() -> None:
    note = Note(META)
    for number in range(MOST_PRODUCERS):
        note = note.with_producer(Producer(str(number), 0, 0), 1000)
    new = Producer("new", 0, 0)
    assert problem(found(note), producer=new, now=86399).why == "conflict"
    assert problem(found(note), producer=Producer("new", 0, 1), now=86399).why == "hole"
    assert problem(found(note, "done"), producer=new, now=86399).why == "closed"
    assert judged(found(note), producer=new, now=86400) is None  # the oldest has not written for a day
    assert judged(found(note), producer=Producer("0", 0, 1), now=86399) is None
    again = judged(found(note), producer=Producer("0", 0, 0), now=86399)
    assert again is not None
    assert not again.is_new
    assert judged(found(note), now=86399) is None
