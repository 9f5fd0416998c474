"""Requests: what is asked of a stream that clients write over HTTP, and what becomes of it, as plain values. Pure.

Source: the Durable Streams protocol, 5.2 and 5.2.1 (https://github.com/durable-streams/durable-streams).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from velocity_ws.streams.items import Part, Summary
from velocity_ws.streams.notes import MOST_PRODUCERS, PRODUCER_HOURS, Note, Producer, normal_type
from velocity_ws.streams.pieces import InvalidPiece, Kind, Piece, unpack

__all__ = ["Appended", "Found", "Post", "Problem", "Said", "judge", "readable", "readable_from"]

Why = Literal["missing", "gone", "conflict", "closed", "invalid", "large", "stale", "hole", "fixed"]


class Problem(Exception):
    """A request that is not done.

    Attributes:
        why: ``missing``: there is no such stream; ``gone``: there was; ``conflict``: it is otherwise than the request
            says; ``closed``: it takes nothing more; ``invalid``: the request is wrong; ``large``: it would be too
            large;
            ``stale``: the producer has another life by now; ``hole``: it has left something out; ``fixed``: it is
            written by the application, and nobody else.
        found: the stream, where that is of use.
        producer: what the stream has of the producer, or expects.
        received: what it got in place of that.
    """

    def __init__(
        self,
        why: Why,
        text: str,
        found: Found | None = None,
        producer: Producer | None = None,
        received: Producer | None = None,
    ) -> None:
        super().__init__(text)
        self.why: Why = why
        self.found = found
        self.producer = producer
        self.received = received


class Found(NamedTuple):
    """A stream as a request finds it.

    Attributes:
        stream: what the engine says of it.
        note: what is kept with it; ``None`` for one of the application's.
    """

    stream: Summary
    note: Note | None

    @property
    def is_closed(self) -> bool:
        """Whether it takes nothing more."""
        return bool(self.stream.end)


class Said(NamedTuple):
    """What a request says.

    Attributes:
        kind: of the data.
        length: how many characters, items, or bytes, it has.
        data: as of a `Piece`.
    """

    kind: Kind
    length: int
    data: bytes


class Post(NamedTuple):
    """A request that appends to a stream, or closes it, or both.

    Attributes:
        content_type: of what is appended; ``None`` where nothing is.
        seq: the sender's ``Stream-Seq``.
        producer: who sent it, and its number.
        is_closing: whether the stream has ended with it.
    """

    content_type: str | None = None
    seq: str | None = None
    producer: Producer | None = None
    is_closing: bool = False


class Appended(NamedTuple):
    """What became of a request.

    Attributes:
        found: the stream then.
        is_new: whether this was it; false where the same was taken before.
        producer: what the stream has of the producer, where the request named one.
    """

    found: Found
    is_new: bool
    producer: Producer | None = None


def judge(found: Found, post: Post, now: float) -> Appended | None:
    """What becomes of an append without being done; ``None`` where it is to be done.

    Args:
        found: the stream.
        post: what is asked for.
        now: seconds since 1970.

    Raises:
        Problem: it is not to be done.
    """
    note = found.note
    content_type, seq, producer, is_closing = post
    if note is None:
        raise Problem("fixed", "this stream is written by the application, and nobody else", found)
    last = None if producer is None else note.producers.get(producer.id)
    if found.is_closed:
        if producer is not None and note.closed_by == producer:
            return Appended(found, is_new=False, producer=producer)
        if content_type is None and is_closing and producer is None:
            return Appended(found, is_new=False)
        if producer is not None and last is not None and _is_known(last, producer):
            return Appended(found, is_new=False, producer=Producer(producer.id, *last))
        raise Problem("closed", "the stream is closed", found)
    if content_type is not None and normal_type(content_type) != normal_type(note.meta.type):
        raise Problem("conflict", f"the stream has {note.meta.type}, and this is {content_type:.200}", found)
    if producer is not None and (done := _look_at_producer(found, last, producer)) is not None:
        return done
    if producer is not None and not note.takes(producer, now):
        # To forget one of them would be to append again what it sends again.
        within = f"{MOST_PRODUCERS} producers that wrote within {PRODUCER_HOURS} hours"
        raise Problem("conflict", f"a stream has at most {within}, and this one has them without this one", found)
    if seq is not None and note.seq is not None and seq.encode() <= note.seq.encode():
        raise Problem("conflict", "Stream-Seq is not beyond the last one", found)
    return None


def _is_known(last: tuple[int, int], producer: Producer) -> bool:
    return (producer.epoch, producer.seq) <= last and producer.epoch == last[0]


def _look_at_producer(found: Found, last: tuple[int, int] | None, producer: Producer) -> Appended | None:
    """The same by what a producer sent before.

    Raises:
        Problem: it has another life by now, or has left something out.
    """
    epoch, seq = last if last is not None else (producer.epoch, -1)
    if producer.epoch < epoch:
        raise Problem("stale", "the producer has another epoch by now", found, Producer(producer.id, epoch, seq))
    if producer.epoch > epoch:
        if producer.seq:
            raise Problem("invalid", "a new epoch begins with Producer-Seq 0", found)
        return None
    if producer.seq <= seq:
        return Appended(found, is_new=False, producer=Producer(producer.id, epoch, seq))
    if producer.seq > seq + 1:
        expected = Producer(producer.id, epoch, seq + 1)
        raise Problem("hole", "the producer has left something out", found, expected, producer)
    return None


def readable(part: Part | None) -> list[Piece]:
    """The pieces of what was read, up to one that is none."""
    pieces: list[Piece] = []
    for payload in [] if part is None else part.payloads:
        try:
            pieces.append(unpack(payload))
        except InvalidPiece:
            break
    return pieces


def readable_from(part: Part | None, position: int, until: int | None = None) -> list[Piece]:
    """What was read of a stream behind a position, without a hole; up to another position, or ``None`` for all."""
    found: list[Piece] = []
    for piece in readable(part):
        rest = piece.after(position)
        if until is not None:
            rest = rest.until(until)
        if rest.length and rest.start == position:
            found.append(rest)
            position = rest.stop
    return found
