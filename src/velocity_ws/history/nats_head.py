"""Head: all that is known of a log on NATS beside its entries, as one value, and what an append makes of it.

Knows no connection. An entry lies in a *slot*, a subject of its own; a log has a *ring* of them, and the head says
which. It knows the sizes and times of the oldest entries, so that it can tell which are gone, and why; where it knows
them no more, they are read again. Pure.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from velocity_ws.history.entries import Entry, Stamp
from velocity_ws.history.items import Append, Limits, Top
from velocity_ws.history.marks import new_mark
from velocity_ws.history.positions import EPOCH_SIZE, Position

__all__ = ["TABLE", "Found", "Head", "UnknownOldest"]

TABLE = 32
"""Oldest entries of which the head has size and time: it is sent with each message."""
_SPARE = 4
"""The top is kept for this part of its time longer than asked for, so that not every call has to write."""


class UnknownOldest(Exception):
    """The oldest entries must be read, as the head does not know their sizes and times.

    Attributes:
        head: the one to go on with, by `Head.learn`; those entries are gone from it that are known to go.
    """

    def __init__(self, head: Head) -> None:
        self.head = head
        super().__init__()


class Found(NamedTuple):
    """An entry as it was stored.

    Attributes:
        entry: the entry.
        total: bytes of all envelopes of its epoch, up to it.
    """

    entry: Entry
    total: int


class Head(msgspec.Struct, array_like=True):
    """The end of a log.

    Attributes:
        place: the position, packed.
        time: milliseconds; that of the newest entry, or of the beginning.
        until: when the top may be forgotten.
        limits: size, ttl and max_bytes in force.
        total: bytes of all envelopes of the epoch.
        oldest: the smallest offset that is not known to be gone; one beyond the top where all are.
        before: bytes of all envelopes before that.
        table: size and time, after ``born``, of the oldest entries, from `oldest` on, without a hole.
        born: the time from which those of the table count.
        evicted: as in `Top`.
        cleared: the offset at which the log was cleared last.
        horizon: entries of this time, or before, are gone by age.
        rings: where each ring of slots begins, as an offset, and how many slots it has; ever more.
        is_here: whether the newest entry is in the message that has this head, and not in a slot yet.
        key: the name of the newest entry's idempotency key, and its digest; empty for none.
        removal: the revision of the last removal; 0 for none.
        removals_until: when the engine may forget who was removed.
    """

    place: bytes
    time: int
    until: int
    limits: tuple[int, int, int]
    total: int
    oldest: int
    before: int
    table: list[tuple[int, int]]
    born: int
    evicted: int
    cleared: int
    horizon: int
    rings: list[tuple[int, int]]
    is_here: bool = False
    key: tuple[str, bytes] = ("", b"")
    removal: int = 0
    removals_until: int = 0

    @classmethod
    def begin(cls, limits: Limits, now: int) -> Head:
        """That of a new epoch."""
        place = Position(secrets.token_bytes(EPOCH_SIZE), 0, 0, new_mark()).pack()
        head = cls(place, now, 0, limits[:], 0, 1, 0, [], now, 0, 0, -1, [(1, limits.size)])
        return head.kept(limits, now)

    @classmethod
    def parse(cls, text: bytes) -> Head:
        """Read what `text` has written.

        Raises:
            ValueError: it is none.
        """
        try:
            return msgspec.msgpack.decode(base64.b64decode(text), type=cls)
        except msgspec.MsgspecError as error:
            raise ValueError(str(error)) from error

    @property
    def text(self) -> bytes:
        """The head as text for a header."""
        return base64.b64encode(msgspec.msgpack.encode(self))

    @property
    def position(self) -> Position:
        """The position of the newest entry, with the current revision."""
        return Position.unpack(self.place)

    def notice(self, now: int) -> Stamp:
        """The stamp of a notice."""
        position = self.position
        return Stamp(position, position.mark, max(now, self.time))

    def top(self, now: int, lost: int = 0) -> Top:
        """The end of the log; ``lost`` is the largest offset that the engine was seen to have lost."""
        return Top(self.position, max(self.evicted, lost), max(now, self.time))

    def is_known(self, now: int) -> bool:
        """Whether the top is not forgotten."""
        return now < self.until

    def kept(self, limits: Limits, now: int) -> Head:
        """Known for as long as a call with these limits asks for; the same where it is anyway."""
        if self.until >= now + limits.meta_ttl:
            return self
        return msgspec.structs.replace(self, until=now + limits.meta_ttl + limits.meta_ttl // _SPARE)

    def gone_at(self, now: int) -> int:
        """Entries of this time, or before, are too old."""
        return max(self.horizon, now - self.limits[1])

    def slot(self, offset: int) -> str:
        """The name of an entry's slot."""
        first, length = self.rings[-1]
        if offset < first:
            length = next(length for first, length in reversed(self.rings) if offset >= first)
        return f"{length}-{offset % length}"

    def time_of(self, offset: int) -> int | None:
        """When an entry was appended; ``None`` where the head does not know."""
        if offset == self.position.offset:
            return self.time
        index = offset - self.oldest
        return self.born + self.table[index][1] if 0 <= index < len(self.table) else None

    def append(self, append: Append, key: str, now: int) -> tuple[Head, Stamp]:
        """The head after an append, and the entry's stamp.

        Args:
            append: what is appended.
            key: the name of its idempotency key; empty for none.
            now: the engine's time.

        Raises:
            UnknownOldest: it cannot say without having read them.
        """
        now, limits, before_it = max(now, self.time), append.log.limits, self.position
        place = Position(before_it.epoch, before_it.offset + 1, before_it.revision, new_mark())
        offset, size = place.offset, len(append.envelope)
        horizon = max(self.horizon, now - min(limits.ttl, self.limits[1]))
        oldest, before, table, evicted = self.oldest, self.before, self.table.copy(), self.evicted
        total = self.total + size
        if len(table) == offset - oldest and len(table) < TABLE:
            table.append((size, now - self.born))
        while oldest <= offset:
            is_over = offset - oldest >= limits.size or total - before > limits.max_bytes
            if not table:
                if is_over:
                    raise UnknownOldest(
                        msgspec.structs.replace(self, oldest=oldest, before=before, table=[], evicted=evicted)
                    )
                break
            is_old = oldest < offset and self.born + table[0][1] <= horizon
            if not is_over and not is_old:
                break
            if not is_old:
                evicted = oldest
            before += table.pop(0)[0]
            oldest += 1
        rings = self.rings if limits.size <= self.rings[-1][1] else [*self.rings, (offset, limits.size)]
        while len(rings) > 1 and rings[1][0] <= oldest:
            rings = rings[1:]
        head = msgspec.structs.replace(
            self,
            place=place.pack(),
            time=now,
            limits=limits[:],
            total=total,
            oldest=oldest,
            before=before,
            table=table,
            evicted=evicted,
            horizon=horizon,
            rings=rings,
            is_here=True,
            key=(key, append.digest if key else b""),
        )
        return head.kept(limits, now), Stamp(place, before_it.mark, now)

    def learn_own(self, known: Sequence[tuple[int, int]]) -> Head:
        """The head once sizes and times of its oldest entries are known.

        Args:
            known: of the next `TABLE`, or fewer, at least one.
        """
        return msgspec.structs.replace(self, table=[(size, time - self.born) for size, time in known])

    def learn(self, found: Mapping[int, Found]) -> Head:
        """The head once its oldest entries were read: those that are not there are gone by age.

        Args:
            found: by their offsets, all that are there of the next `TABLE`, or the newest.
        """
        oldest = min(found, default=self.position.offset + 1)
        if not found:
            return msgspec.structs.replace(self, oldest=oldest, before=self.total, table=[])
        first = found[oldest]
        table: list[tuple[int, int]] = []
        while (each := found.get(oldest + len(table))) is not None and len(table) < TABLE:
            table.append((len(each.entry.envelope), each.entry.stamp.time - self.born))
        return msgspec.structs.replace(self, oldest=oldest, before=first.total - len(first.entry.envelope), table=table)

    def revised(self, limits: Limits, now: int) -> Head:
        """The head after one more revision."""
        position = self.position
        place = position._replace(revision=position.revision + 1).pack()
        return msgspec.structs.replace(self, place=place).kept(limits, max(now, self.time))

    def emptied(self) -> Head:
        """The head once the log is cleared."""
        offset = self.position.offset
        return msgspec.structs.replace(
            self,
            evicted=offset,
            cleared=offset,
            oldest=offset + 1,
            before=self.total,
            table=[],
            rings=self.rings[-1:],
            is_here=False,
            key=("", b""),
        )
