"""Recoveries: who comes into a room with history gets what it has missed, or is told why it cannot; then what is new.

Knows rooms and clients, and neither their messages nor their rights; `CatchingUp` gives them what they are due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from velocity_ws.history.beyond import Beyond, Missed
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

__all__ = ["Entrance", "Recoveries", "Since", "came_at", "marks_of", "user_mark"]

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


class _Verdict(NamedTuple):
    """What was found out about what a client missed.

    Attributes:
        reason: why it cannot have it; ``None`` where it can.
        missed: how many messages; ``None`` where the ring of the room has them all.
    """

    reason: Reason | None
    missed: int | None = None


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
        self._beyond = Beyond(feeds, limit=limit)

    # --- whether it can have what it missed

    async def decide(self, session: Session, feed: Feed, since: Since | None) -> tuple[Joined, Position]:
        """What a client that comes into a room is answered, and from where on it gets messages.

        Raises:
            BackplaneUnavailable: the engine could not be asked.
        """
        await self._feeds.opened(feed)
        start: Position | None = None
        if isinstance(since, Position):
            verdict, start = await self._judge(session, feed, since), since
        elif since is not None:
            verdict, start = await self._rewind(session, feed, since)
        else:
            verdict = _Verdict(None)
        if feed.is_latest and verdict.reason != "forbidden":
            feed.drop_old()
            if feed.offset and not feed.ring.frames and not feed.ring.is_whole:
                await self._feeds.ranged(feed)
            newest = await self._beyond.before_newest(feed)
            has_it = isinstance(since, Position) and verdict.reason is None and since.is_at(feed.position)
            cursor = feed.position if has_it else newest
        elif verdict.reason is not None or start is None:
            cursor = feed.position
        else:
            cursor = start
        return self._answer(session, feed, since, verdict, cursor), cursor

    def _answer(self, session: Session, feed: Feed, since: Since | None, verdict: _Verdict, cursor: Position) -> Joined:
        if since is None:
            return Joined(feed.room, cursor.at)
        if verdict.reason is not None:
            self._count(verdict.reason, 0)
            return Joined(feed.room, cursor.at, False, verdict.reason)
        ids, missed = session.ids, verdict.missed
        if missed is None:
            missed = sum([ids.isdisjoint(frame.excluded) for frame in feed.ring.after(cursor.offset)])
        self._count(None, missed)
        # Where nothing is missed up to the node's place, it stands there: the newest revision is known as well, and the
        # engine is not asked for removals again. What was read for it alone ends before that place, or behind it.
        is_there = not missed and verdict.missed is None
        return Joined(feed.room, feed.at if is_there else cursor.at, True, None, missed)

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
        verdict = _Verdict("too_many") if len(ranges) > MAX_LOST else await self._judge(session, feed, since)
        reason = verdict.reason if verdict.missed is None else verdict.reason or "too_many"  # to be put aside here
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

    async def _judge(self, session: Session, feed: Feed, since: Position) -> _Verdict:
        removed, looked_at, reads = 0, -1, 0
        missed: Missed | None = None
        limit, is_latest = self._limit, feed.is_latest
        while True:
            revision = feed.revision if missed is None else max(feed.revision, missed.top.position.revision)
            if since.epoch == feed.epoch and since.revision < revision != looked_at:
                looked_at = revision
                removed = await self._removed(session, feed.log)
                continue
            view = feed.view(since)
            if view is not None:
                return _Verdict(judge(since, feed.top, view, removed=removed, limit=limit, is_latest=is_latest))
            if missed is not None:
                reason = judge(since, missed.top, missed.view, removed=removed, limit=limit, is_latest=is_latest)
                return _Verdict(reason, missed.messages)
            is_of_now = since.epoch == feed.epoch
            if reads == 2 and not is_of_now:
                return _Verdict("epoch")
            if reads == 2 or (reads and is_of_now and since.offset <= feed.offset):  # and there was no place for it
                missed = await self._beyond.missed(feed, since, session.ids)
            else:  # twice where it knows more than the node: the first read may have begun before it came
                await self._feeds.ranged(feed)
                reads += 1

    async def _removed(self, session: Session, log: Log) -> int:
        """The revision at which the client, by any of its names, was last removed; 0 for never."""
        asked = [self._link.removed(Lookup(log, mark)) for mark in marks_of(session, session.ids)]
        return max(await asyncio.gather(*asked))

    async def _rewind(self, session: Session, feed: Feed, since: int | Literal["start"]) -> tuple[_Verdict, Position]:
        """Whether a client can have the newest messages of a number, or all; and the place before them."""
        wanted = feed.offset if since == "start" else since
        if not feed.ring.is_whole and len(feed.ring.frames) < min(wanted, feed.offset):
            await self._feeds.ranged(feed)
        feed.drop_old()
        found = len(feed.ring.frames)
        if feed.ring.is_whole or (since != "start" and found >= wanted):
            return _Verdict("too_many" if min(wanted, found) > self._limit else None), _back(feed, since)
        place = await self._beyond.start(feed, max(0, feed.offset - wanted))
        missed = await self._beyond.missed(feed, place, session.ids)
        return _Verdict(judge(place, missed.top, missed.view, removed=0, limit=self._limit), missed.messages), place


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


def came_at(session: Session, room: str, place: Position | None) -> None:
    """Remember where a client came into a room that it has not asked for, and perhaps stopped in before.

    Args:
        session: the client's.
        room: the room.
        place: where; ``None`` where the engine has yet to say that.
    """
    if session.starts is None:
        session.starts = {}
    session.starts[room] = place
