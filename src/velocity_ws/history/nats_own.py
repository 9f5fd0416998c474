"""Own: sizes and times of what a node itself has appended to logs on NATS, which it need not read again. Pure.

A log that is full gives up its oldest entry with each append, and the head knows only some of them. To read the others
takes the node a tenth of what an append takes, where nobody else writes to the log; else they are read.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from itertools import islice

from velocity_ws.history.entries import Stamp
from velocity_ws.history.positions import Position

__all__ = ["Own"]

LIMIT = 2**18
"""Entries of which something is kept, of 16 bytes each; the logs that were appended to longest ago are given up."""


class _Log:
    """Contiguous entries of one log."""

    __slots__ = ("epoch", "first", "mark", "sizes", "times")

    def __init__(self, epoch: bytes, first: int) -> None:
        self.epoch = epoch
        self.first = first
        self.mark = b""
        self.sizes = array("Q")
        self.times = array("Q")


class Own:
    """What one connection has appended. On the broker's loop only."""

    def __init__(self, limit: int = LIMIT) -> None:
        """
        Args:
            limit: entries.
        """
        self._limit = limit
        self._count = 0
        self._logs: OrderedDict[str, _Log] = OrderedDict()

    def add(self, topic: str, stamp: Stamp, size: int) -> None:
        """An entry was appended.

        Args:
            topic: of its log.
            stamp: its stamp.
            size: bytes of its envelope.
        """
        epoch, offset, _, mark = stamp.position
        log = self._logs.get(topic)
        if log is None or log.mark != stamp.previous or log.first + len(log.sizes) != offset or log.epoch != epoch:
            self._forget(topic)
            log = self._logs[topic] = _Log(epoch, offset)
        log.mark = mark
        log.sizes.append(size)
        log.times.append(stamp.time)
        self._count += 1
        self._logs.move_to_end(topic)
        while self._count > self._limit:
            self._forget(next(iter(self._logs)))

    def oldest(self, topic: str, top: Position, first: int, most: int) -> list[tuple[int, int]]:
        """Sizes and times of entries, in order. Nothing is asked of older ones after this.

        Args:
            topic: of the log.
            top: its end: where it is another than the last entry that was appended here, nothing is known.
            first: the offset of the first of them.
            most: how many, at most.
        """
        log = self._logs.get(topic)
        if log is None or (log.epoch, log.mark) != (top.epoch, top.mark) or first < log.first:
            return []
        over = min(first - log.first, len(log.sizes))
        del log.sizes[:over], log.times[:over]
        log.first += over
        self._count -= over
        return list(islice(zip(log.sizes, log.times, strict=True), most))

    def _forget(self, topic: str) -> None:
        log = self._logs.pop(topic, None)
        if log is not None:
            self._count -= len(log.sizes)
