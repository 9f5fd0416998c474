"""Beyond: what was missed in a room, where the node has no place for it: read from the engine, for one client alone.

The ring of a room gives way to those of others, and much that was missed may be more than all of them hold. Knows no
client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from velocity_ws.history.entries import Entry
from velocity_ws.history.envelopes import open_envelope
from velocity_ws.history.feed import Feed
from velocity_ws.history.feeds import Feeds
from velocity_ws.history.items import Top
from velocity_ws.history.positions import Position
from velocity_ws.history.recovery import View, view_of

__all__ = ["Beyond", "Missed"]

AT_ONCE = 4
"""Clients for which is read at once, each a page at a time."""
TRIES = 5
"""How often the newest message is read, where a newer one comes each time."""


class Missed(NamedTuple):
    """What follows a position.

    Attributes:
        top: the end of the log.
        view: what is known of the log, seen from the position.
        messages: how many follow that are for the client; 0 where they are too many, or not all there.
    """

    top: Top
    view: View
    messages: int


class Beyond:
    """What one node reads for clients alone. On the broker's loop only."""

    def __init__(self, feeds: Feeds, *, limit: int) -> None:
        """
        Args:
            feeds: the rooms with history.
            limit: messages that a client may recover at once.
        """
        self._feeds = feeds
        self._limit = limit
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def missed(self, feed: Feed, since: Position, ids: frozenset[str]) -> Missed:
        """Read what follows a position.

        Args:
            feed: the room.
            since: the position.
            ids: those of the client.

        Raises:
            BackplaneUnavailable: the engine did not answer.
        """
        async with self._turns:
            top, entries = await self._feeds.page(feed, since.offset)
            view, count = view_of(since, top, entries), 0
            if top.position.offset - since.offset > self._limit:
                return Missed(top, view, 0)
            while entries:
                last = entries[-1].stamp.position
                count += _count(entries, ids)
                if last.offset >= top.position.offset:
                    break
                end, entries = await self._feeds.page(feed, last.offset)
                if not entries or entries[0].stamp.previous != last.mark:  # lost while it was read
                    return Missed(end, View(end.position.offset + 1, None), 0)
            return Missed(top, view, count)

    async def start(self, feed: Feed, after: int) -> Position:
        """The place before the oldest message that has a larger offset; that of the members where there is none.

        Raises:
            BackplaneUnavailable: the engine did not answer.
        """
        async with self._turns:
            _, entries = await self._feeds.page(feed, after)
        return entries[0].stamp.before if entries else feed.position

    async def before_newest(self, feed: Feed) -> Position:
        """The place before the newest message that the members have had; theirs where it is not there any more.

        Raises:
            BackplaneUnavailable: the engine did not answer.
        """
        for _ in range(TRIES):
            if feed.ring.frames or feed.ring.is_whole or not feed.offset:
                return feed.before_newest()
            place = await self.start(feed, feed.offset - 1)
            if place.epoch == feed.epoch and place.offset == feed.offset - 1:
                return place
            if place.offset == feed.offset:
                return feed.position
            await self._feeds.ranged(feed)
        return feed.before_newest()


def _count(entries: Sequence[Entry], ids: frozenset[str]) -> int:
    opened = [open_envelope(entry.envelope) for entry in entries]
    return sum([each is not None and ids.isdisjoint(each.excluded) for each in opened])
