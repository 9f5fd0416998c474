"""CatchingUp: gives members of a room with history what they have not had, then lets them have what is new.

A member that is held here gets nothing of the room: its place in the log stands for all that it has yet to get, so that
nothing is kept for it. Knows rooms, clients and logs, and not why somebody has missed something.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence

from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history.entries import Entry
from velocity_ws.history.envelopes import open_envelope
from velocity_ws.history.feed import Feed
from velocity_ws.history.feeds import Feeds
from velocity_ws.history.positions import Position
from velocity_ws.history.recovery import judge, view_of
from velocity_ws.history.ring import Frame
from velocity_ws.messages.events import GapReason, encode_lost
from velocity_ws.messages.outbound import placed
from velocity_ws.sessions.holds import Hold
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.session import Session
from velocity_ws.stats import Counters

__all__ = ["CatchingUp"]

PIECE = 64 * 1024
"""Bytes of messages that a client gets at once while it catches up; half of its queue, where that is less."""
PATIENCE = 30.0
"""Seconds that a client which catches up may take to read a piece, before the rest counts as too slow for it."""
AGAIN = 0.5
"""Seconds until the engine is asked again for what a client is to get."""


class CatchingUp:
    """The members of one node that catch up. On the broker's loop only."""

    def __init__(self, hub: Hub[Session], feeds: Feeds, counters: Counters, *, queue: int) -> None:
        """
        Args:
            hub: the clients of this node.
            feeds: the rooms with history.
            counters: the node's.
            queue: bytes that may wait for one client.
        """
        self._hub = hub
        self._feeds = feeds
        self._counters = counters
        self._piece = min(PIECE, queue // 2)
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """End what is being given to clients, which have gone."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def go(self, hold: Hold[Session], dropped: Sequence[Frame] = ()) -> None:
        """Give a member what follows its place, which it was held at, and then let it have what is new.

        Args:
            hold: what holds it; over when it has all.
            dropped: what it gets before that, as it was too slow for it.
        """
        feed = self._feeds.of(hold.room)
        if hold.is_over:
            return
        if feed is None or not feed.is_open:
            self._hub.finish(hold)
            return
        if hold.cursor is None:
            hold.cursor = feed.position
        if not hold.asked and not dropped and self._can_have_all(feed, hold):
            self._hub.finish(hold)
            return
        task = asyncio.create_task(self._catch_up(feed, hold, dropped), name="velocity-ws recovery")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _can_have_all(self, feed: Feed, hold: Hold[Session]) -> bool:
        """Give a member all that it has not had, if that is little; whether it was."""
        cursor: Position = hold.cursor
        if _is_at_end(feed, cursor):
            return True
        frames = _next(feed, cursor, self._piece)
        if not frames or frames[-1].offset < feed.offset or frames[0].message.cost > self._piece:
            return False
        outbox = hold.member.outbox
        if outbox is None or not outbox.is_free:
            return False
        self._offer(hold, frames)
        return True

    def _offer(self, hold: Hold[Session], frames: Iterable[Frame]) -> None:
        member = hold.member
        ids = member.ids
        for frame in frames:
            if not frame.excluded or ids.isdisjoint(frame.excluded):
                member.offer(frame.message)

    async def _catch_up(self, feed: Feed, hold: Hold[Session], dropped: Sequence[Frame]) -> None:
        """Give a member, piece by piece, what it has not had; others wait for none of it."""
        for piece in self._pieces(dropped):
            if not await self._may_have(hold):
                return
            self._offer(hold, piece)
        while not hold.is_over:
            if not hold.asked and _is_at_end(feed, hold.cursor):
                self._hub.finish(hold)
                return
            if not await self._may_have(hold):
                return
            cursor: Position = hold.cursor
            # No more than a piece: what is kept for a member that reads slowly is its place in the log.
            piece = _next(feed, cursor, self._piece) or await self._page(feed, hold, cursor)
            if piece and not hold.is_over and not hold.asked:
                self._offer(hold, piece)
                hold.cursor = Position.unpack(piece[-1].stamp)

    async def _may_have(self, hold: Hold[Session]) -> bool:
        """Wait until nothing else waits for a member, and it may stay in the room; whether it is still there.

        One that does not read is given more than its queue holds after a while, so that it ends as any slow client.
        """
        while not hold.is_over:
            with contextlib.suppress(TimeoutError):
                await hold.member.put(None, PATIENCE)
            if not hold.asked:
                return not hold.is_over
            await hold.wait_answered()
        return False

    def _pieces(self, frames: Sequence[Frame]) -> Iterable[list[Frame]]:
        piece: list[Frame] = []
        size = 0
        for frame in frames:
            if piece and size + frame.message.cost > self._piece:
                yield piece
                piece, size = [], 0
            piece.append(frame)
            size += frame.message.cost
        if piece:
            yield piece

    async def _page(self, feed: Feed, hold: Hold[Session], cursor: Position) -> list[Frame]:
        """Read what follows a member's place, as this node has it no more; nothing, where it is told of a gap, or
        has to be asked again.

        What the other members have not had either is left out, as it comes live.
        """
        try:
            if cursor.epoch == feed.epoch and cursor.offset > feed.offset:
                await self._feeds.ranged(feed)
                if cursor.offset <= feed.offset:
                    return []
            top, entries = await self._feeds.page(feed, cursor.offset, self._piece)
        except BackplaneUnavailable:
            await asyncio.sleep(AGAIN)
            return []
        reason = judge(cursor, top, view_of(cursor, top, entries), removed=0, limit=2**53, is_latest=feed.is_latest)
        if hold.is_over:
            return []
        if reason is None and entries:
            if top.position.epoch == feed.epoch:
                entries = [entry for entry in entries if entry.stamp.position.offset <= feed.offset]
            return self._frames(feed, hold, entries)
        if reason is None:  # the engine says less than was heard: it is behind, or went back, which the feed finds out
            self._feeds.deaf(feed.log.topic)
            await asyncio.sleep(AGAIN)
        elif reason in ("evicted", "expired"):
            to = entries[0].stamp.before if entries else feed.position
            self._skip(feed, hold, to, to.offset - cursor.offset, reason)
        else:
            self._skip(feed, hold, feed.start() if reason == "epoch" else feed.position, None, "epoch")
        return []

    def _frames(self, feed: Feed, hold: Hold[Session], entries: Sequence[Entry]) -> list[Frame]:
        """What a member gets of entries that follow its place, as far as it can be read."""
        found: list[Frame] = []
        place = hold.cursor.at
        for entry in entries:
            stamp = entry.stamp
            opened = open_envelope(entry.envelope)
            if opened is None:  # of a version to come: it has a place, and nobody here can read it
                if not found:
                    self._skip(feed, hold, stamp.position, 1, "evicted")
                break
            at = stamp.position.at
            message = placed(opened.payload, feed.room, at, place, opened.key)
            found.append(Frame(stamp.pack(), stamp.position.offset, message, opened.excluded))
            place = at
        return found

    def _skip(self, feed: Feed, hold: Hold[Session], to: Position, missed: int | None, reason: GapReason) -> None:
        """Tell a member that something is missing, and go on behind it."""
        cursor: Position = hold.cursor
        hold.cursor = to
        self._counters.backplane_gaps += 1
        hold.member.offer(encode_lost(feed.room, missed, reason, to.at, cursor.at))


def _is_at_end(feed: Feed, cursor: Position) -> bool:
    return cursor.offset == feed.offset and cursor.epoch == feed.epoch


def _next(feed: Feed, cursor: Position, size: int) -> list[Frame]:
    """The frames that follow a place, one at least, and not more than a number of bytes; none where the node has not
    those."""
    frame = feed.ring.at(cursor.offset + 1)
    if frame is None or cursor.epoch != feed.epoch or not cursor.is_behind(frame.previous):
        return []
    found: list[Frame] = []
    while frame is not None and (not found or frame.message.cost <= size):
        found.append(frame)
        size -= frame.message.cost
        frame = feed.ring.at(frame.offset + 1)
    return found
