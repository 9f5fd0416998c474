"""State: a stream on NATS as it was in one moment, and what follows of it. Knows no connection. Pure.

There is a record, and the last piece. How the stream has ended is said by its last piece; a record that is *closed*
says it as well, for the time when there are no pieces any more. All times are in milliseconds.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from velocity_ws.history.nats_messages import Stored
from velocity_ws.streams.items import Append, Begin, End, Renewal, Summary, Written
from velocity_ws.streams.pieces import note_of, peek

__all__ = ["CLOCKS", "PLACE", "STRIDE", "Last", "Mark", "Record", "State", "Subjects", "Tail", "time_of"]

PLACE: Final = b"V"
"""The header of a piece: bytes of what comes before the payload, and the mark that it has."""
CLOCKS: Final = 500
"""Milliseconds by which what is taken for the engine's time here and there may differ."""
STRIDE: Final = 64
"""Pieces from one mark to the next."""


class Mark(NamedTuple):
    """Where an earlier piece is, so that a reader who needs the end does not begin at the beginning.

    Attributes:
        sequence: that of its message; 0 for none.
        start: characters, or items, before it.
    """

    sequence: int
    start: int


class Record(msgspec.Struct, array_like=True, frozen=True):
    """What is known of a stream beside its pieces.

    Attributes:
        id: as bytes, as it may be any text.
        topic: of the stream.
        room: as bytes.
        writer: of the stream.
        began: when it began.
        times: how long things last.
        ended: since when it counts as ended; -1 where that is not settled.
        end: how; empty where its writer died and nobody ended it.
        pieces: how many it has.
        length: how many characters, or items.
    """

    id: bytes
    topic: str
    room: bytes
    writer: bytes
    began: int
    times: tuple[int, int, int]
    ended: int = -1
    end: End = ""
    pieces: int = 0
    length: int = 0

    @classmethod
    def of(cls, begin: Begin, now: int) -> Record:
        """That of a stream which begins."""
        id_, room = begin.id.encode("utf-8", "surrogatepass"), begin.room.encode("utf-8", "surrogatepass")
        return cls(id_, begin.topic, room, begin.writer, now, begin.times[:])

    def renewed(self, renewal: Renewal) -> Record:
        """The same with other times."""
        return msgspec.structs.replace(self, times=renewal.times[:])

    @property
    def data(self) -> bytes:
        """The record as bytes."""
        return msgspec.msgpack.encode(self)


class Last(NamedTuple):
    """The last piece of a stream.

    Attributes:
        sequence: that of its message.
        time: when it was stored.
        payload: the piece.
        mark: of it.
    """

    sequence: int
    time: int
    payload: bytes
    mark: Mark

    @classmethod
    def of(cls, stored: Stored) -> Last:
        """Read what was stored."""
        head, sequence, start = map(int, stored.header(PLACE).split())
        return cls(stored.sequence, time_of(stored), stored.payload[head:], Mark(sequence, start))


class Subjects(NamedTuple):
    """Where the messages of a stream are.

    Attributes:
        pieces: the pieces.
        all: record and pieces.
        guard: that of the two by which pieces are guarded.
    """

    pieces: str
    all: str
    guard: str


class Tail(NamedTuple):
    """Where the next piece of a stream goes, for its writer.

    Attributes:
        writer: of the stream.
        subjects: of the stream.
        guard: what must not have changed: a subject, and the sequence of its last message.
        pieces: how many there are.
        until: until when this may be used without looking whether the stream is gone.
        mark: that the next one has.
    """

    writer: bytes
    subjects: Subjects
    guard: tuple[str, int]
    pieces: int
    until: int
    mark: Mark = Mark(0, 0)

    def after(self, sequence: int, start: int) -> Tail:
        """The same once a piece was stored."""
        mark = self.mark if self.pieces % STRIDE else Mark(sequence, start)
        return self._replace(guard=(self.subjects.guard, sequence), pieces=self.pieces + 1, mark=mark)

    def renewed(self, gone_at: int) -> Tail | None:
        """The same once the record was stored anew; ``None`` where it is guarded by the record, as what has come before
        that was stored, an end for instance, is not known.
        """
        return self._replace(until=gone_at - CLOCKS) if self.guard[0] == self.subjects.pieces else None


class State(NamedTuple):
    """A stream as it was in one moment.

    Attributes:
        record: what is known of it; ``None`` where nothing is, and pieces are left.
        sequence: that of the record's message.
        time: when that was stored.
        last: the last piece; ``None`` where there is none.
    """

    record: Record | None
    sequence: int = 0
    time: int = 0
    last: Last | None = None

    @property
    def newest(self) -> int:
        """The sequence of the newest of its messages."""
        return max(self.sequence, self.last.sequence if self.last else 0)

    @property
    def counts(self) -> tuple[int, int, End]:
        """How many pieces it has, how many characters or items, and how it has ended."""
        if self.record is not None and self.record.ended >= 0:
            return self.record.pieces, self.record.length, self.record.end
        if self.last is None:
            return 0, 0, ""
        number, start, length, end = peek(self.last.payload)
        return number + 1, start + length, end

    @property
    def end(self) -> End:
        """How it has ended."""
        return self.counts[2]

    def ended_at(self, record: Record) -> int:
        """Since when it counts as ended, if nothing happens before."""
        if record.ended >= 0:
            return record.ended
        if self.last is not None and self.end:
            return self.last.time
        return self.time + record.times[0]

    def known(self, now: int) -> Record | None:
        """The record, where the stream is not forgotten."""
        record = self.record
        return None if record is None or now >= self.forgotten_at(record) else record

    def forgotten_at(self, record: Record) -> int:
        """When it is known no more, if nothing happens before."""
        return self.gone_at(record) + record.times[2]

    def gone_at(self, record: Record) -> int:
        """When its pieces are gone, if nothing happens before."""
        return self.ended_at(record) + record.times[1]

    def is_over(self, record: Record, now: int) -> bool:
        """Whether it has ended, or is gone."""
        return bool(self.end) or now >= self.gone_at(record)

    def summary(self, now: int) -> Summary | None:
        """What it is at that time; ``None`` where it is forgotten."""
        record = self.known(now)
        if record is None:
            return None
        pieces, length, end = self.counts
        left = 0 if end or record.ended >= 0 else min(max(0, self.time + record.times[0] - now), record.times[0])
        return Summary(
            record.id.decode("utf-8", "surrogatepass"),
            record.topic,
            record.room.decode("utf-8", "surrogatepass"),
            record.writer,
            pieces,
            length,
            end,
            left,
            max(0, now - record.began),
            now >= self.gone_at(record),
            b"" if self.last is None else note_of(self.last.payload),
        )

    def closed(self, now: int) -> tuple[State, Record] | None:
        """This, and the record that says all that is known of it once its pieces are gone; ``None`` where that is
        there already, or it is not over.
        """
        record = self.record
        if record is None or record.ended >= 0 or not self.is_over(record, now):
            return None
        pieces, length, end = self.counts
        ended = self.ended_at(record)
        return self, msgspec.structs.replace(record, ended=ended, end=end, pieces=pieces, length=length)

    def judge(self, append: Append, subjects: Subjects, now: int) -> Written | Tail:
        """What becomes of a piece at that time; where to, if it is the next."""
        record = self.known(now)
        if record is None or record.writer != append.writer:
            return Written(is_taken=False)
        pieces, _, end = self.counts
        number, *_ = peek(append.payload)
        if now < self.gone_at(record):
            if self.last is not None and self.last.payload == append.payload:
                return Written(is_taken=True, end=end)
            if not end and number == pieces:
                return self.tail(record, subjects)
        return Written(is_taken=False, end=end)

    def tail(self, record: Record, subjects: Subjects) -> Tail:
        """Where the next piece goes. The first one is guarded by the record as well, which says whose it is."""
        until, last = self.gone_at(record) - CLOCKS, self.last
        if last is None:
            return Tail(record.writer, subjects, (subjects.all, self.newest), 0, until)
        number, start, *_ = peek(last.payload)
        before = Tail(record.writer, subjects, (subjects.guard, 0), number, until, last.mark)
        guard = subjects.guard, last.sequence if subjects.guard == subjects.pieces else self.newest
        return before.after(last.sequence, start)._replace(guard=guard)


def time_of(stored: Stored) -> int:
    """When a message was stored, by the engine's clock."""
    return int(datetime.fromisoformat(stored.header(b"Nats-Time-Stamp").decode()).timestamp() * 1000)
