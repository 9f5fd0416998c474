"""MemoryLog: one log in this process, with all that a `HistoryStore` promises of it. Knows no connection and no bus.

It is the reference: other engines do the same with what they have. Nothing here waits, and every call is a whole step.
"""

from __future__ import annotations

import secrets
from collections import deque
from itertools import islice

from velocity_ws.history.entries import STAMP_SIZE, Entry, Stamp, pack_stamp, time_of
from velocity_ws.history.items import KEY_TTL, MAX_REMOVED, Append, Appended, Limits, Query, Range, Refused, Top
from velocity_ws.history.marks import new_mark
from velocity_ws.history.positions import EPOCH_SIZE, Position

__all__ = ["MemoryLog"]

LEAST_PAUSE = 1000
"""Milliseconds between two looks for what is too old, where nothing else looks."""


class MemoryLog:
    """One life of a log. Every method takes the engine's time, in milliseconds.

    Attributes:
        forgotten_at: the time from which on the engine knows it no more.
        published: what is to be published of the newest entry.
    """

    def __init__(self, limits: Limits, now: int) -> None:
        """
        Args:
            limits: those that apply until the first append.
            now: the time.
        """
        self.forgotten_at = 0
        self.published = b""
        self._limits = limits
        self._epoch = secrets.token_bytes(EPOCH_SIZE)
        self._offset = self._revision = self._evicted = self._bytes = 0
        self._mark = new_mark()
        self._last = now
        self._entries: deque[bytes] = deque()  # packed, which takes half the memory
        self._keys: dict[str, tuple[bytes, bytes]] = {}  # digest and packed stamp
        self._removals: dict[str, int] = {}
        self._removed_all = 0
        self.touch(limits, now)

    def due(self, now: int) -> int:
        """When to look again for what is too old."""
        return min(self.forgotten_at, now + max(self._limits.ttl, LEAST_PAUSE))

    def touch(self, limits: Limits, now: int) -> None:
        """Keep it for as long as a call with these limits asks for."""
        self.forgotten_at = now + limits.meta_ttl

    def append(self, append: Append, now: int) -> Appended | Refused:
        """Take an entry; the caller publishes it, as it is in `published`, where it is no duplicate."""
        now = self._tick(now)
        if append.key and (known := self._keys.get(append.key)) is not None:
            digest, stamp = known
            if digest == append.digest:
                return Appended(stamp, is_duplicate=True)
            return Refused("conflict", "the key stands for another message, which was first")
        limits = append.log.limits
        if limits != self._limits or (self._entries and now >= time_of(self._entries[0]) + limits.ttl):
            self._drop_old(now, min(limits.ttl, self._limits.ttl))
            self._limits = limits
        previous, self._mark = self._mark, new_mark()
        self._offset += 1
        stamp = pack_stamp(self._epoch, self._offset, self._revision, self._mark, previous, now)
        self.published = append.envelope + stamp
        self._entries.append(self.published)
        self._bytes += len(append.envelope)
        while len(self._entries) > limits.size or self._bytes > limits.max_bytes:
            self._drop_oldest()
            self._evicted = self._offset - len(self._entries)
        if append.key:
            self._keys[append.key] = append.digest, stamp
        return Appended(stamp)

    def top(self, now: int) -> Top:
        """Where the log ends."""
        return Top(self._position, self._evicted, self._tick(now))

    def read(self, query: Query, now: int) -> Range:
        """What a query asks for."""
        now = self._tick(now)
        self._drop_old(now, self._limits.ttl)
        before = max(0, query.after - self._offset + len(self._entries))
        count = max(0, min(query.limit, len(self._entries) - before))
        if query.newest:
            found = list(islice(reversed(self._entries), count))
        else:
            found = list(islice(self._entries, before, before + count))
        size = 0
        for index, data in enumerate(found):
            size += len(data) - STAMP_SIZE
            if index and size > query.max_bytes:
                del found[index:]
                break
        entries = [Entry.unpack(data) for data in found]
        return Range(self.top(now), entries[::-1] if query.newest else entries)

    def remove(self, user: str) -> None:
        """Keep that a user was removed; the caller publishes the notice."""
        self._revision += 1
        self._removals.pop(user, None)
        self._removals[user] = self._revision
        if len(self._removals) > MAX_REMOVED:
            self._removed_all = self._removals.pop(next(iter(self._removals)))

    def removed(self, user: str) -> int:
        """At which revision a user was last removed; 0 for never."""
        return max(self._removed_all, self._removals.get(user, 0))

    def clear(self) -> None:
        """Forget the entries and the keys; the caller publishes the notice."""
        self._revision += 1
        self._evicted = self._offset
        self._bytes = 0
        self._entries.clear()
        self._keys.clear()

    def notice(self, now: int) -> Stamp:
        """The stamp of a notice: that of the top."""
        return Stamp(self._position, self._mark, self._tick(now))

    def tidy(self, now: int) -> None:
        """Let go of what is too old, when nothing else looks."""
        self._drop_old(self._tick(now), self._limits.ttl)

    @property
    def _position(self) -> Position:
        return Position(self._epoch, self._offset, self._revision, self._mark)

    def _tick(self, now: int) -> int:
        """The time of the log, which does not go back with the clock; keys that are too old are gone then."""
        if now < self._last:
            now = self._last
        else:
            self._last = now
        while self._keys:
            key, (_, stamp) = next(iter(self._keys.items()))
            if now < time_of(stamp) + KEY_TTL * 1000:
                break
            del self._keys[key]
        return now

    def _drop_old(self, now: int, ttl: int) -> None:
        while self._entries and now >= time_of(self._entries[0]) + ttl:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._bytes -= len(self._entries.popleft()) - STAMP_SIZE
