"""Items: what a store of logs is asked, and what it answers, as plain values. Knows no engine. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

import msgspec

from velocity_ws.history.entries import Entry, Stamp
from velocity_ws.history.positions import Position
from velocity_ws.retention import Limits

__all__ = [
    "KEPT_SIZE",
    "KEY_TTL",
    "MAX_REMOVED",
    "SECRET_SIZE",
    "Append",
    "Appended",
    "Limits",
    "Log",
    "Lookup",
    "Query",
    "Range",
    "Refused",
    "Removal",
    "Top",
    "granted",
    "too_large",
]

KEY_TTL = 300.0
"""Seconds for which the result of an append with an idempotency key is kept."""
SECRET_SIZE = 32
"""Bytes of a secret that stores share."""
KEPT_SIZE = 64 * 1024
"""Bytes that a value has at most that stores share."""
MAX_REMOVED = 10_000
"""Users of one room of whom it is known when they were removed."""

T = TypeVar("T")


class Log(NamedTuple):
    """The log of a topic.

    Attributes:
        topic: as for `Backplane`; what is appended is published to it.
        limits: what is kept of it.
    """

    topic: str
    limits: Limits


class Append(msgspec.Struct, frozen=True):
    """An entry to be. A struct, as is `Appended`: each message has one, and a tuple takes 0.1 µs more to make.

    Attributes:
        log: where to.
        envelope: any bytes, at most `HistoryStore.max_payload`. It says itself which clients it is not for.
        key: an idempotency key of the log, any text of at most 256 characters; empty for none.
        digest: 16 bytes that are the same where the same message is sent again; given with a key.
    """

    log: Log
    envelope: bytes
    key: str = ""
    digest: bytes = b""


class Appended(msgspec.Struct, frozen=True):
    """The result of an append.

    Attributes:
        packed: the stamp of the entry, in its 40 bytes, as most who append do not look at it.
        is_duplicate: whether the entry is one that was appended with the same key before; nothing was published then.
    """

    packed: bytes
    is_duplicate: bool = False

    @property
    def stamp(self) -> Stamp:
        """The stamp of the entry."""
        return Stamp.unpack(self.packed)


class Top(NamedTuple):
    """The end of a log, as it was in one moment.

    Attributes:
        position: that of the newest entry, with the current revision.
        evicted: the largest offset that is gone for another reason than age: the log was too long or too large, it was
            cleared, or the engine lost it. 0 where none is. What is gone beyond it was too old.
        time: the engine's, in milliseconds; comparable with the times of entries.
    """

    position: Position
    evicted: int
    time: int


class Query(NamedTuple):
    """What to read of a log.

    Attributes:
        log: which one; its limits apply where it has had no append.
        after: entries of larger offsets.
        limit: how many at most, at least 1.
        max_bytes: bytes of the envelopes at most; the first one comes even where it has more.
        newest: whether to begin at the newest and go back, where there are more; else at the oldest. The entries are in
            order of offsets in any case, without a hole.
    """

    log: Log
    after: int = 0
    limit: int = 100
    max_bytes: int = 1024 * 1024
    newest: bool = False


class Range(NamedTuple):
    """What was read, in one moment.

    Attributes:
        top: the end of the log.
        entries: in order of offsets, contiguous. The first is that after `Query.after`, or the oldest that is left; or,
            for ``newest``, the last one is the top. Fewer than are there, where a bound was reached.
    """

    top: Top
    entries: list[Entry]


class Removal(NamedTuple):
    """A user who may not look back from now on.

    Attributes:
        log: of the room.
        user: the user's id, not empty.
        notice: an envelope that is published with a stamp, in the same step; empty for none.
    """

    log: Log
    user: str
    notice: bytes = b""


class Lookup(NamedTuple):
    """The question when a user was last removed.

    Attributes:
        log: of the room.
        user: the user's id.
    """

    log: Log
    user: str


class Refused(OSError):
    """The engine did not do something, and it is certain that no part of it was done.

    Attributes:
        reason: ``conflict`` where an idempotency key stands for another message; ``engine`` where the engine cannot: it
            is full, it may not write, this one is too large for it (the text says which); ``moving`` where it cannot
            for a moment, as the log is on its way to another server, and the same may be asked again soon.
    """

    def __init__(self, reason: Literal["conflict", "engine", "moving"], text: str) -> None:
        self.reason = reason
        super().__init__(text)


def granted(result: T | Refused) -> T:
    """One result of a call that has several.

    Raises:
        Refused: it is that.
    """
    if isinstance(result, Refused):
        raise result
    return result


def too_large(data: bytes, most: int) -> Refused | None:
    """What is said of a message, a notice or a value that has more than ``most`` bytes; ``None`` where it has not."""
    if len(data) <= most:
        return None
    return Refused("engine", f"the message has {len(data)} bytes, and the engine takes {most}")
