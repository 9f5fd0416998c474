"""MemoryStream: one stream as a process keeps it, and when it is gone. Knows no lock, no bus and no other stream."""

from __future__ import annotations

import bisect
import itertools
import sys

from velocity_ws.streams.items import Begin, End, Query, Summary, Times
from velocity_ws.streams.pieces import note_of, unpack

__all__ = ["MemoryStream"]


class MemoryStream:
    """One stream. Times are in milliseconds.

    Attributes:
        begin: what began it.
        due: when it is looked at next, as it is gone, or forgotten, then.
        began: when it began.
        until: when its writer counts as dead.
        ended: when it ended, if it has.
        times: how long things last, as was said last.
        payloads: its pieces, until they are gone.
        starts: how many characters, or items, come before each piece.
        length: how many there are.
        end: how it has ended.
    """

    __slots__ = ("began", "begin", "due", "end", "ended", "length", "payloads", "starts", "times", "until")

    def __init__(self, begin: Begin, now: int) -> None:
        """
        Args:
            begin: what begins it.
            now: the time.
        """
        self.begin = begin
        self.due = sys.maxsize
        self.began = now
        self.until = now + begin.times.lease
        self.ended = 0
        self.times: Times = begin.times
        self.payloads: list[bytes] = []
        self.starts: list[int] = []
        self.length = 0
        self.end: End = ""

    @property
    def gone_at(self) -> int:
        """When its pieces are gone, if nothing happens before."""
        return (self.ended if self.end else self.until) + self.times.ttl

    @property
    def forgotten_at(self) -> int:
        """When it is known no more, if nothing happens before."""
        return self.gone_at + self.times.memory

    def summary(self, now: int) -> Summary:
        """What it is at that time."""
        id_, topic, room, writer, _ = self.begin
        left = 0 if self.end else max(0, self.until - now)
        pieces = len(self.starts)
        note = note_of(self.payloads[-1]) if self.payloads else b""
        return Summary(
            id_, topic, room, writer, pieces, self.length, self.end, left, now - self.began, now >= self.gone_at, note
        )

    def add(self, payload: bytes, now: int) -> None:
        """Take the next piece."""
        piece = unpack(payload)
        self.payloads.append(payload)
        self.starts.append(piece.start)
        self.length = piece.stop
        if piece.end:
            self.end, self.ended = piece.end, now

    def read(self, query: Query) -> list[bytes]:
        """The pieces that are asked for."""
        first = max(0, bisect.bisect_right(self.starts, query.after) - 1)
        size = 0
        found: list[bytes] = []
        for payload in itertools.islice(self.payloads, first, None):
            size += len(payload)
            if found and size > query.max_bytes:
                break
            found.append(payload)
        return found
