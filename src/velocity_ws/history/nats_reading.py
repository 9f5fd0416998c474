"""Reading: which entries a query of a log on NATS gets, page by page. Knows no URL, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable

from velocity_ws.history.entries import Entry
from velocity_ws.history.items import Query, Range
from velocity_ws.history.nats_head import Found, Head
from velocity_ws.history.nats_logs import NatsLogs, State

__all__ = ["read_range"]

LEAST_PAGE, MOST_PAGE = 16, 1000
"""Slots that are read at once: as many as fill the bytes that are asked for, by what the log's entries have."""


async def read_range(logs: NatsLogs, query: Query, state: State, head: Head) -> Range:
    """What a query asks for, of a log as it was in one moment; what has gone since then is counted as gone.

    Raises:
        ConnectionError: the engine did not answer.
    """
    now = max(await logs.now(), head.time)
    reading = _Reading(query, head, head.gone_at(now))
    while reading.wants_more:
        offsets = reading.page()
        reading.take(offsets, await logs.entries(query.log.topic, state, head, offsets))
    return Range(head.top(now, reading.lost), reading.entries[::-1] if query.newest else reading.entries)


class _Reading:
    """A query on its way through a log.

    Attributes:
        entries: what it gets, in the order in which they are taken.
        lost: the largest offset that is gone for another reason than age, and should be there.
    """

    def __init__(self, query: Query, head: Head, gone_at: int) -> None:
        """
        Args:
            query: what is asked for.
            head: the log's.
            gone_at: entries of this time, or before, are too old.
        """
        self.entries: list[Entry] = []
        self.lost = 0
        self._query = query
        self._head = head
        self._gone_at = gone_at
        self._bytes = 0
        self._is_full = False
        self._first, self._last = max(query.after + 1, head.oldest), head.position.offset
        while self._first <= self._last and (time := head.time_of(self._first)) is not None and time <= gone_at:
            self._first += 1
        size = max(1, (head.total - head.before) // max(1, self._last - head.oldest + 1))
        self._most = min(MOST_PAGE, max(LEAST_PAGE, 2 * query.max_bytes // size))

    @property
    def wants_more(self) -> bool:
        """Whether there is more to read."""
        return self._first <= self._last and not self._is_full

    def page(self) -> range:
        """The offsets to read next."""
        most = min(self._most, self._query.limit - len(self.entries))
        if self._query.newest:
            return range(max(self._first, self._last + 1 - most), self._last + 1)
        return range(self._first, min(self._last, self._first - 1 + most) + 1)

    def take(self, offsets: range, found: dict[int, Found]) -> None:
        """Take what was found of a page."""
        order: Iterable[int] = reversed(offsets) if self._query.newest else offsets
        for offset in order:
            each = found.get(offset)
            if each is None or each.entry.stamp.time <= self._gone_at:
                if each is None and not self._is_old(offset):
                    self.lost = max(self.lost, offset)
                if self._query.newest:  # older ones do not belong to what was taken
                    self._first = self._last + 1
                    return
                self.entries.clear()  # nor do these to what follows
                self._bytes = 0
                continue
            self._bytes += len(each.entry.envelope)
            if self.entries and self._bytes > self._query.max_bytes:
                self._is_full = True
                return
            self.entries.append(each.entry)
            if len(self.entries) == self._query.limit:
                self._is_full = True
                return
        if self._query.newest:
            self._last = offsets.start - 1
        else:
            self._first = offsets.stop

    def _is_old(self, offset: int) -> bool:
        """Whether age can be the reason why an entry is gone."""
        time = self._head.time_of(offset)
        if time is None and self._head.table:
            time = self._head.born + self._head.table[-1][1]  # that of an older one
        return time is None or time <= self._gone_at
