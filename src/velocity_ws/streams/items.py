"""Items: what a store of streams is asked, and what it answers, as plain values. Knows no engine. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = [
    "BY_REQUESTS",
    "MAX_LISTED",
    "WRITER_SIZE",
    "Append",
    "Began",
    "Begin",
    "Deletion",
    "End",
    "Ending",
    "Part",
    "Query",
    "Renewal",
    "Summary",
    "Times",
    "Written",
]

End = Literal["", "done", "cancelled", "error", "lost"]
"""How a stream has ended; empty while it has not."""
WRITER_SIZE = 16
"""Bytes by which a writer is known."""
BY_REQUESTS = b"\0http"
"""What the writers of streams begin with that requests write: which they are is known before they say anything."""
MAX_LISTED = 1000
"""Streams of one room that are listed, the newest of them."""


class Times(NamedTuple):
    """How long things last, in milliseconds of the engine's clock.

    Attributes:
        lease: after a renewal, until the writer counts as dead.
        ttl: after the end, until the pieces are gone.
        memory: after that, until the engine forgets that there was such a stream.
    """

    lease: int
    ttl: int
    memory: int


class Begin(NamedTuple):
    """A stream to be.

    Attributes:
        id: any text of 1 to 256 characters; the same stream for ever, in whatever room.
        topic: the topic to which its pieces are published, as for `Backplane`.
        room: the room, which the topic is of; any text.
        writer: `WRITER_SIZE` bytes that nobody guesses. They fence: no other writer is ever taken.
        times: how long things last.
    """

    id: str
    topic: str
    room: str
    writer: bytes
    times: Times


class Summary(NamedTuple):
    """A stream, as it was in one moment.

    Attributes:
        id: of `Begin`.
        topic: the same.
        room: the same.
        writer: the same.
        pieces: how many pieces there are.
        length: how many characters, or items.
        end: how it has ended.
        left: milliseconds until the writer counts as dead; 0 where it does, or the stream has ended.
        age: milliseconds since it began.
        is_gone: whether its pieces are gone, as it ended, or its writer died, longer ago than they are kept.
        note: that of its last piece, where it was looked at (see `pieces`); empty where there is none.
    """

    id: str
    topic: str
    room: str
    writer: bytes
    pieces: int
    length: int
    end: End
    left: int
    age: int
    is_gone: bool = False
    note: bytes = b""


class Began(NamedTuple):
    """The result of a begin.

    Attributes:
        stream: the stream of the id: the one that was begun, or one that was there before; its writer says which.
        is_forbidden: whether it was forbidden to begin it (see `StreamStore.forbid`), which the caller sees to.
    """

    stream: Summary
    is_forbidden: bool = False


class Append(NamedTuple):
    """A piece to be.

    Attributes:
        id: of the stream.
        topic: of the stream.
        writer: of the stream.
        payload: of `velocity_ws.streams.pieces`; its number is that of the pieces before, and its end, if it has one,
            ends the stream.
        head: what is published before the payload, as one message.
    """

    id: str
    topic: str
    writer: bytes
    payload: bytes
    head: bytes


class Written(NamedTuple):
    """What a writer is answered.

    Attributes:
        is_taken: whether it was done. If not, it never will be: the writer is no more the one.
        end: how the stream has ended by now. Where it was not taken, empty: the engine knows no such stream, or knows
            one of another writer, or one that is gone and never ended.
    """

    is_taken: bool
    end: End = ""


class Renewal(NamedTuple):
    """A writer that says that it lives.

    Attributes:
        id: of the stream.
        topic: of the stream.
        writer: of the stream.
        times: how long things last from now on.
    """

    id: str
    topic: str
    writer: bytes
    times: Times


class Ending(NamedTuple):
    """An end by another than the writer.

    Attributes:
        id: of the stream.
        topic: of the stream.
        end: how it ends.
        head: what is published before the payload of the end, which the store makes (`pieces.pack_end`).
        is_of_dead: whether it ends only where the writer counts as dead.
    """

    id: str
    topic: str
    end: End
    head: bytes
    is_of_dead: bool = False


class Deletion(NamedTuple):
    """A stream that is to be known no more.

    Attributes:
        id: of the stream.
        topic: of the stream.
        writer: of the stream; where the id has another one by now, that one stays.
    """

    id: str
    topic: str
    writer: bytes


class Query(NamedTuple):
    """What to read of a stream.

    Attributes:
        id: of the stream.
        topic: of the stream.
        after: characters, or items, that are not needed: the first piece that is read is the one that has the next, or
            an earlier one.
        max_bytes: bytes of the payloads at most; the first one comes even where it has more.
    """

    id: str
    topic: str
    after: int = 0
    max_bytes: int = 1024 * 1024


class Part(NamedTuple):
    """What was read, in one moment.

    Attributes:
        stream: the stream.
        payloads: its pieces in order, without a hole. Fewer than are there, where a bound was reached; none where there
            are no more, or they are gone. Those without text and items may be missing among them.
    """

    stream: Summary
    payloads: list[bytes]
