"""Recoveries: who comes into a room with history gets what it has missed, or is told why it cannot; then what is new.

Knows rooms and clients, and neither their messages nor their rights; `CatchingUp` gives them what they are due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from velocity_ws.history.feed import Feed
from velocity_ws.history.feeds import Feeds
from velocity_ws.history.items import Log, Lookup
from velocity_ws.history.link import HistoryLink
from velocity_ws.history.positions import Position
from velocity_ws.history.recovery import Reason, judge
from velocity_ws.history.ring import Frame
from velocity_ws.history.values import Joined
from velocity_ws.sessions.addressable import MAX_LOST
from velocity_ws.sessions.holds import Hold
from velocity_ws.sessions.session import Session
from velocity_ws.stats import Counters

__all__ = ["Entrance", "Recoveries", "Since", "marks_of", "user_mark"]

Since = Position | int | Literal["start"]
"""Where a client stands in a room's log: a position, how many of the newest messages it wants, or all."""


class Entrance(NamedTuple):
    """The way of a client into a room.

    Attributes:
        joined: what it is answered.
        hold: what keeps the room's messages from it until then; ``None`` where it gets them already.
        dropped: what it gets first, as it was too slow for it.
    """

    joined: Joined
    hold: Hold[Session] | None
    dropped: Sequence[Frame] = ()


class Recoveries:
    """The clients of one node that come into rooms with history. On the broker's loop only."""

    def __init__(self, feeds: Feeds, link: HistoryLink, counters: Counters, *, limit: int) -> None:
        """
        Args:
            feeds: the rooms with history.
            link: the way to the logs.
            counters: the node's.
            limit: messages that a client may recover at once.
        """
        self._feeds = feeds
        self._link = link
        self._counters = counters
        self._limit = limit

    # --- whether it can have what it missed

    async def decide(self, session: Session, feed: Feed, since: Since | None) -> tuple[Joined, Position]:
        """What a client that comes into a room is answered, and from where on it gets messages.

        Raises:
            BackplaneUnavailable: the engine could not be asked.
        """
        await self._feeds.opened(feed)
        if isinstance(since, Position):
            reason = await self._judge(session, feed, since)
        elif since is not None:
            reason = await self._rewind(feed, since)
        else:
            reason = None
        if feed.is_latest and reason != "forbidden":
            if feed.offset and not feed.ring.frames and not feed.ring.is_whole:
                await self._feeds.ranged(feed)
            has_it = isinstance(since, Position) and reason is None and since.offset == feed.offset
            cursor = feed.position if has_it else feed.before_newest()
        elif reason is not None or since is None:
            cursor = feed.position
        elif isinstance(since, Position):
            cursor = since
        else:
            cursor = _back(feed, since)
        return self._answer(session, feed, since, reason, cursor), cursor

    def _answer(
        self, session: Session, feed: Feed, since: Since | None, reason: Reason | None, cursor: Position
    ) -> Joined:
        if since is None:
            return Joined(feed.room, cursor.at)
        if reason is not None:
            self._count(reason, 0)
            return Joined(feed.room, cursor.at, False, reason)
        ids = session.ids
        missed = sum([ids.isdisjoint(frame.excluded) for frame in feed.ring.after(cursor.offset)])
        self._count(None, missed)
        # Where nothing is missed, the newest revision is known as well, and the engine is not asked for removals again.
        return Joined(feed.room, cursor.at if missed else feed.at, True, None, missed)

    async def dropped(
        self, session: Session, feed: Feed, since: Position, ranges: list[tuple[str, str]]
    ) -> tuple[Joined, list[Frame]]:
        """What a member is answered that asks for what it was too slow for.

        Args:
            session: the member's.
            feed: the room.
            since: where the first of it begins.
            ranges: what the member was told: positions, each of before the first and at the last message.

        Raises:
            BackplaneUnavailable: the engine could not be asked.
        """
        reason = "too_many" if len(ranges) > MAX_LOST else await self._judge(session, feed, since)
        parsed = [(Position.parse(before), Position.parse(at)) for before, at in ranges]
        ids, oldest = session.ids, feed.start().offset  # what is older is not here where the newest stands for all
        found = [
            frame
            for before, at in parsed
            if reason is None and before.epoch == feed.epoch and before.offset >= since.offset
            for frame in feed.ring.after(max(before.offset, oldest))
            if frame.offset <= at.offset and ids.isdisjoint(frame.excluded)
        ]
        self._count(reason, len(found))
        if reason is not None:
            return Joined(feed.room, feed.at, False, reason), []
        return Joined(feed.room, feed.at, True, None, len(found)), found

    def _count(self, reason: Reason | None, missed: int) -> None:
        self._counters.recoveries[reason or "recovered"] += 1
        self._counters.recovered_messages += missed

    async def _judge(self, session: Session, feed: Feed, since: Position) -> Reason | None:
        removed, looked_at, was_read = 0, -1, False
        while True:
            if since.epoch == feed.epoch and since.revision < feed.revision != looked_at:
                looked_at = feed.revision
                removed = await self._removed(session, feed.log)
                continue
            view = feed.view(since)
            if view is not None:
                limit = self._limit
                return judge(since, feed.top, view, removed=removed, limit=limit, is_latest=feed.is_latest)
            if not was_read:
                await self._feeds.ranged(feed)
                was_read = True
                continue
            if since.epoch != feed.epoch:
                return "epoch"
            if since.revision < removed:
                return "forbidden"
            if since.offset > feed.offset:
                return "rewound"
            return "evicted" if since.offset < feed.evicted else "too_many"

    async def _removed(self, session: Session, log: Log) -> int:
        """The revision at which the client, by any of its names, was last removed; 0 for never."""
        asked = [self._link.removed(Lookup(log, mark)) for mark in marks_of(session, session.ids)]
        return max(await asyncio.gather(*asked))

    async def _rewind(self, feed: Feed, since: int | Literal["start"]) -> Reason | None:
        wanted = feed.offset if since == "start" else since
        if not feed.ring.is_whole and len(feed.ring.frames) < min(wanted, feed.offset):
            await self._feeds.ranged(feed)
        found = len(feed.ring.frames)
        if since == "start":
            return "too_many" if found > self._limit or not feed.ring.is_whole else None
        return "too_many" if min(wanted, found) > self._limit or (found < wanted and not feed.ring.is_whole) else None


def marks_of(session: Session, ids: Iterable[str]) -> list[str]:
    """The names by which it is kept that a client was removed: those of its user, if it has one, and of its ids.

    Its user may be another when it comes back, and its id is: hence both.

    Args:
        session: the client's.
        ids: those of its ids that are meant.
    """
    user_id = session.user_id
    return [*([] if user_id is None else [user_mark(user_id)]), *[f"c{name}" for name in ids]]


def user_mark(user_id: str) -> str:
    """The name by which it is kept that a user was removed."""
    return f"u{user_id}"


def _back(feed: Feed, count: int | Literal["start"]) -> Position:
    """The place before the newest messages of a number, or before all of them."""
    frames = feed.ring.frames
    if count == "start" or count >= len(frames):
        return feed.start()
    if not count:
        return feed.position
    return Position.unpack(frames[len(frames) - count - 1].stamp)
