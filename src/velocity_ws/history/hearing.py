"""Hearing: the messages of one room, given to its members once and in order, as they are heard. Pure.

Who hears an entry has heard, or lost, all entries before it, as an engine publishes a topic in order. What this node
has appended it may know before it hears what others appended before that; it waits for those then. Knows no client and
no engine: what is missing is for others to ask.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from velocity_ws.history.entries import at_of
from velocity_ws.history.items import Log
from velocity_ws.history.place import Place
from velocity_ws.history.ring import Frame, Rings
from velocity_ws.messages.events import GapReason
from velocity_ws.messages.outbound import placed

__all__ = ["FeedUser", "Gap", "Hearing", "Opened"]

MAX_AHEAD = 1000
"""Entries that are kept until their turn comes; what is beyond is read again."""
MAX_AHEAD_BYTES = 1024 * 1024
WAKE = 10.0
"""Seconds of silence after which a message is told to the user."""


class Opened(NamedTuple):
    """What an entry says, apart from its stamp.

    Attributes:
        payload: the JSON of the message, without a room and a place.
        excluded: the ids of clients that do not get it.
        key: replaces a message of the same event and key that waits for a client; empty for none.
    """

    payload: bytes
    excluded: frozenset[str]
    key: str = ""


class Gap(NamedTuple):
    """Something that no member gets any more.

    Attributes:
        missed: how many messages; ``None`` where that is not known.
        reason: why.
        before: the place from which on they are missing.
        at: the place from which on none is.
    """

    missed: int | None
    reason: GapReason
    before: str
    at: str


class FeedUser(Protocol):
    """What a feed tells. On the broker's loop only."""

    def deliver(self, feed: Any, frame: Frame) -> None:
        """Give a message to the members."""

    def tell(self, feed: Any, gap: Gap) -> None:
        """Tell the members of a gap."""

    def ask(self, feed: Any) -> None:
        """Ask the engine what the feed wants to know."""

    def wait(self, feed: Any) -> None:
        """Ask soon, where what is missing is not heard meanwhile."""

    def wake(self, feed: Any) -> None:
        """Something was heard after a silence."""

    def went_back(self, feed: Any, epoch: bytes, entries: list[tuple[int, bytes]]) -> None:
        """Entries that the members have had are in the log no more: offset and mark of each, as far as known."""


class Hearing(Place):
    """One room's log, as far as it is heard. On the broker's loop only.

    Attributes:
        wants_top: whether it has to be asked where the log ends.
        wants_rest: whether something is missing, and to be read.
        wants_range: whether the newest entries are to be read.
        is_over: whether the node has no such room any more.
        heard_at: when members got something last, by the clock.
    """

    def __init__(
        self,
        room: str,
        log: Log,
        rings: Rings,
        user: FeedUser,
        *,
        is_latest: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            room: as for `Place`.
            log: as for `Place`.
            rings: as for `Place`.
            user: told what comes.
            is_latest: as for `Place`.
            clock: as for `Place`.
        """
        super().__init__(room, log, rings, is_latest=is_latest, clock=clock)
        self.wants_top = True
        self.wants_rest = self.wants_range = self.is_over = False
        self.heard_at = 0.0
        self._user = user
        self._ahead: dict[bytes, tuple[bytes, Opened]] = {}
        self._ahead_bytes = 0

    @property
    def is_settled(self) -> bool:
        """Whether nothing is to be asked."""
        return not (self.wants_top or self.wants_rest or self.wants_range)

    def heard(
        self, stamp: bytes, payload: bytes, excluded: frozenset[str], key: str = "", *, is_own: bool = False
    ) -> None:
        """An entry was heard, or was appended by this node.

        Args:
            stamp: its stamp.
            payload: the JSON of the message, without room and place.
            excluded: the ids of clients that do not get it.
            key: as in `Opened`.
            is_own: whether this node knows of it by having appended it, and not by hearing it.
        """
        if stamp[:13] == self._next and stamp[24:32] == self._mark:
            self._advance(stamp, payload, excluded, key)
            if self._ahead:
                self._drain()
        else:
            self._out_of_turn(stamp, Opened(payload, excluded, key), is_own=is_own)

    def noticed(self, stamp: bytes, *, cleared: bool) -> None:
        """Somebody was removed from the room, or the log was cleared.

        Args:
            stamp: that of the notice: the end of the log then, with its new revision.
            cleared: whether it was cleared.
        """
        if stamp[:6] != self.epoch:
            self.wants_top = True
            self._user.ask(self)
            return
        self._revise(int.from_bytes(stamp[13:16], "big"))
        offset = int.from_bytes(stamp[6:13], "big")
        if cleared:
            while self.ring.frames and self.ring.frames[0].offset <= offset:
                self.ring.popleft()
            self.evicted = max(self.evicted, offset)
        if offset > self.offset:
            self.wants_top = True
            self._user.ask(self)

    def _advance(self, stamp: bytes, payload: bytes, excluded: frozenset[str], key: str) -> None:
        """Give the members the next message."""
        at = at_of(stamp)
        offset = self.offset + 1
        frame = Frame(stamp, offset, placed(payload, self.room, at, self._at, key), excluded)
        self.offset = offset
        self._at = at
        self._mark = stamp[16:24]
        self._newest = frame.time
        self._next = self.epoch + (offset + 1).to_bytes(7, "big")
        revision = int.from_bytes(stamp[13:16], "big")
        if revision > self.revision:
            self.revision = revision
        now, before = self._clock(), self.heard_at
        self.heard_at = now
        if now - before > WAKE:
            self._user.wake(self)
        self.ring.append(frame)
        self._trim()
        self._user.deliver(self, frame)

    def _out_of_turn(self, stamp: bytes, opened: Opened, *, is_own: bool) -> None:
        offset = int.from_bytes(stamp[6:13], "big")
        if self.is_open and stamp[:6] == self.epoch and offset <= self.offset:
            if not self.is_repeat(stamp):
                self.wants_range = True  # other messages have the numbers of those that were here
                self._user.ask(self)
            return
        if len(self._ahead) < MAX_AHEAD and self._ahead_bytes < MAX_AHEAD_BYTES:
            if stamp[:13] not in self._ahead:
                self._ahead_bytes += len(opened.payload)
            self._ahead[stamp[:13]] = stamp, opened
        if not self.is_open:
            return
        if stamp[:6] != self.epoch or stamp[:13] == self._next:
            self.wants_range = True
        elif not is_own:
            self.wants_rest = True
        else:
            self._user.wait(self)
        if not self.is_settled:
            self._user.ask(self)

    @property
    def waits(self) -> bool:
        """Whether something is here whose turn has not come."""
        return bool(self._ahead)

    def _drain(self) -> None:
        """Give the members what has waited for its turn."""
        while (item := self._ahead.get(self._next)) is not None:
            stamp, opened = item
            if stamp[24:32] != self._mark:
                self.wants_range = True
                break
            del self._ahead[self._next]
            self._advance(stamp, *opened)
        is_other = False
        for key in list(self._ahead):
            if key < self._next if key[:6] == self.epoch else not self.wants_range:
                is_other |= key[:6] != self.epoch
                del self._ahead[key]
        # What is of another life was before this one, or has begun since the answer that is taken now was given.
        self.wants_range |= is_other
        self._ahead_bytes = sum(len(opened.payload) for _, opened in self._ahead.values())
