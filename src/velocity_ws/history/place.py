"""Place: where one node stands in the log of one room, and the newest messages of it that the node has. Pure.

All members of a room on a node get the same messages, so that the place in the log is the node's, and theirs with it.
Knows no client and no engine, nor how messages come.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from velocity_ws.history.entries import Stamp
from velocity_ws.history.items import Log, Top
from velocity_ws.history.positions import Position
from velocity_ws.history.recovery import View
from velocity_ws.history.ring import Ring, Rings

__all__ = ["Place"]


class Place:
    """One room's log, as far as a node has it. On the broker's loop only.

    Attributes:
        room: the room.
        log: its log.
        is_latest: whether the newest message stands for all before it.
        ring: the newest messages.
        offset: the number of the last message that members got; -1 before it is known where the log ends.
        epoch: the life of the log; empty before it is known.
        revision: the newest that is known.
        evicted: the largest offset that is gone for another reason than age, as far as known.
    """

    def __init__(
        self, room: str, log: Log, rings: Rings, *, is_latest: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            room: the room.
            log: its log.
            rings: what the rings of all rooms share.
            is_latest: whether the newest message stands for all before it.
            clock: seconds, never going back.
        """
        self.room = room
        self.log = log
        self.ring = Ring(rings)
        self.is_latest = is_latest
        self.offset = -1
        self.epoch = b""
        self.revision = 0
        self.evicted = 0
        self._clock = clock
        self._at = ""
        self._mark = b""
        self._next = b""
        self._time: tuple[int, float] = (0, 0.0)
        self._newest = 0
        """The engine's time of the newest message that members got, in milliseconds."""

    @property
    def is_open(self) -> bool:
        """Whether it is known where the log ends, or ended."""
        return self.offset >= 0

    @property
    def at(self) -> str:
        """The place of the members, as clients know it; empty before it is known."""
        return self._at

    @property
    def position(self) -> Position:
        """The place of the members, with its parts."""
        return Position(self.epoch, self.offset, self.revision, self._mark)

    @property
    def top(self) -> Top:
        """The end of the log, as far as it is known here."""
        return Top(self.position, self.evicted, self._now())

    def view(self, position: Position) -> View | None:
        """What the ring shows of a position; ``None`` where that is not enough to judge it."""
        if position.epoch != self.epoch or position.offset > self.offset:
            return None
        self.drop_old()
        after, frames = position.offset + 1, self.ring.frames
        if position.offset == self.offset:
            return View(after, self._mark)
        if frames and after >= frames[0].offset:
            return View(after, frames[after - frames[0].offset].previous)
        if self.ring.is_whole:
            return View(frames[0].offset if frames else self.offset + 1, None)
        return View(self.offset, None) if self.is_latest and frames else None

    def start(self) -> Position:
        """The place before the oldest message of the ring."""
        frames = self.ring.frames
        return Stamp.unpack(frames[0].stamp).before if frames else self.position

    def before_newest(self) -> Position:
        """The place before the newest message, where it is in the ring."""
        frames = self.ring.frames
        return Stamp.unpack(frames[-1].stamp).before if frames else self.position

    def is_repeat(self, stamp: bytes) -> bool:
        """Whether it is that of an entry which members have had, as far as that can be seen at once."""
        if stamp[:6] != self.epoch or int.from_bytes(stamp[6:13], "big") > self.offset:
            return False
        if int.from_bytes(stamp[13:16], "big") > self.revision:  # a notice
            return False
        known = self._mark_of(int.from_bytes(stamp[6:13], "big"))
        if known is None:  # a log's time never goes back: what is newer than the members' last cannot stand before it
            return int.from_bytes(stamp[32:], "big") <= self._newest
        return known == stamp[16:24]

    def has_had(self, offset: int, mark: bytes) -> bool:
        """Whether an entry with this mark was given to the members, as far as that is still known."""
        return offset <= self.offset and self._mark_of(offset) == mark

    def _behind(self, offset: int) -> list[tuple[int, bytes]]:
        """Offset and mark of the entries behind an offset, as far as they are known."""
        frames = [(frame.offset, frame.mark) for frame in self.ring.frames if frame.offset > offset]
        return frames or ([(self.offset, self._mark)] if self.offset > offset else [])

    def _learn(self, top: Top) -> None:
        self._time = top.time, self._clock()
        if top.position.epoch == self.epoch:
            self.evicted = max(self.evicted, top.evicted)
        else:
            self.evicted = top.evicted

    def _now(self) -> int:
        """The engine's time, in milliseconds."""
        told, when = self._time
        return told + int(1000 * (self._clock() - when))

    def _agrees(self, position: Position) -> bool:
        """Whether nothing is known that stands against an entry being where it is."""
        known = self._mark_of(position.offset)
        return known is None or known == position.mark

    def _mark_of(self, offset: int) -> bytes | None:
        """The mark of an entry; ``None`` where it is not known any more."""
        if offset == self.offset:
            return self._mark
        frame = self.ring.at(offset)
        if frame is None:
            following = self.ring.at(offset + 1)  # which says what it came after
            return None if following is None else following.previous
        return frame.mark

    def _revise(self, revision: int) -> None:
        if revision > self.revision:
            self.revision = revision
            self._at = self.position.at

    def _stand(self, position: Position) -> None:
        """Stand somewhere else, with nothing in the ring."""
        self.ring.clear()
        self.epoch, self.offset, self.revision, self._mark = position
        self._at = position.at
        self._next = self.epoch + (self.offset + 1).to_bytes(7, "big")

    def _trim(self) -> None:
        """Keep no more than the engine does."""
        limits, ring = self.log.limits, self.ring
        while ring.frames and (len(ring.frames) > limits.size or ring.size > limits.max_bytes):
            self.evicted = ring.popleft().offset

    def drop_old(self) -> None:
        """Give up what is too old, by the engine's clock."""
        frames, oldest = self.ring.frames, self._now() - self.log.limits.ttl
        while frames and frames[0].time <= oldest:
            self.ring.popleft()
