"""Entrances: how a client comes into a room with history: held, answered, then given its due. Knows no rights."""

from __future__ import annotations

from velocity_ws.history.catching_up import CatchingUp
from velocity_ws.history.feed import Feed
from velocity_ws.history.feeds import Feeds
from velocity_ws.history.link import HistoryLink
from velocity_ws.history.outcomes import unavailable
from velocity_ws.history.positions import Position
from velocity_ws.history.recoveries import Entrance, Recoveries, Since, came_at
from velocity_ws.history.resuming import Returning
from velocity_ws.history.values import Joined
from velocity_ws.sessions.holds import Hold
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.session import Session

__all__ = ["Entrances"]


class Entrances:
    """The clients of one node that come into rooms with history. On the broker's loop only."""

    def __init__(
        self,
        hub: Hub[Session],
        feeds: Feeds,
        link: HistoryLink,
        recoveries: Recoveries,
        catching_up: CatchingUp,
        limit: int,
    ) -> None:
        """
        Args:
            hub: the clients of this node.
            feeds: where the node stands in the rooms.
            link: the way to the logs.
            recoveries: says what clients can have of what they missed.
            catching_up: gives it to them.
            limit: bytes that are kept for a client of what is in no log.
        """
        self._hub = hub
        self._feeds = feeds
        self._link = link
        self._recoveries = recoveries
        self._catching_up = catching_up
        self._limit = limit

    @property
    def is_up(self) -> bool:
        """Whether the engine can be asked."""
        return self._link.is_up

    def hold_back(self, session: Session, room: str) -> Hold[Session]:
        """Let a client that has just come into a room get nothing of it before it is answered."""
        return self._hub.hold_back(session.id, room, self._limit)

    async def enter(self, session: Session, room: str, since: Since | None, hold: Hold[Session] | None) -> Entrance:
        """Find out what a client that came into a room, or was in it, is answered. `go` lets it have what follows.

        Args:
            session: the client's.
            room: the room.
            since: where it stands, as it says; ``None`` where it says nothing.
            hold: what holds it; ``None`` where it was in the room before.

        Raises:
            BackplaneUnavailable: the engine could not be asked.
        """
        feed = self._feeds.of(room)
        if feed is None:
            raise unavailable("the room is not kept here any more")
        if hold is None:
            return await self._stands(session, feed, since)
        if not self._link.is_up:
            raise unavailable("there is no connection to the engine")
        joined, cursor = await self._recoveries.decide(session, feed, since)
        if since is None and hold.cursor is not None:  # a hook that was told of it has said where it is to begin
            return Entrance(Joined(room, hold.cursor.at), hold)
        hold.cursor = cursor
        return Entrance(joined, hold)

    async def _stands(self, session: Session, feed: Feed, since: Since | None) -> Entrance:
        """What a client is answered that was in the room before."""
        room = feed.room
        other = self._hub.hold_of(session.id, room)
        if since is None:
            at = feed.at or None if other is None or other.cursor is None else other.cursor.at
            return Entrance(Joined(room, at), None)
        if other is not None:
            if isinstance(session.returning, Returning) and session.returning.take(other):
                return await self._returns(session, session.returning, feed, since, other)
            if other.cursor is None:  # a hook that is told of the join would wait for itself
                joined, cursor = await self._recoveries.decide(session, feed, since)
                if other.cursor is None:
                    other.cursor = cursor
                    return Entrance(joined, None)
            await other.wait_over()
        if session.starts is not None and room in session.starts:
            return await self._asks_late(session, feed, since)
        if isinstance(since, Position) and (ranges := session.take_lost(room)):
            try:
                joined, dropped = await self._recoveries.dropped(session, feed, since, ranges)
            except BaseException:
                session.put_back_lost(room, ranges)
                raise
            return self._held_at(session, feed, Entrance(joined, None, dropped))
        return Entrance(Joined(room, feed.at or None, True, None, 0), None)

    async def _returns(
        self, session: Session, returning: Returning, feed: Feed, since: Since, hold: Hold[Session]
    ) -> Entrance:
        """What a client is answered of which it is said where it stopped, before it has said that itself."""
        try:
            joined, hold.cursor = await self._recoveries.decide(session, feed, since)
        except BaseException:
            returning.put_back(hold)
            raise
        return Entrance(joined, hold)

    async def _asks_late(self, session: Session, feed: Feed, since: Since) -> Entrance:
        """What a client is answered that asks for what was before it came into a room, where it has been since."""
        room = feed.room
        await self._feeds.opened(feed)
        start: Position | None = None if session.starts is None else session.starts.pop(room, None)
        if start is None or self._hub.joined_at(session.id, room) is None:
            return Entrance(Joined(room, feed.at, False, "expired"), None)
        if feed.position.is_at(start):  # and nothing was said since
            hold = self.hold_back(session, room)
            hold.cursor = start
            try:
                joined, hold.cursor = await self._recoveries.decide(session, feed, since)
            except BaseException:
                if not hold.is_over:
                    came_at(session, room, start)
                self._catching_up.go(hold)
                raise
            return Entrance(joined, hold)
        if isinstance(since, Position) and since.epoch == start.epoch and start.offset <= since.offset <= feed.offset:
            return Entrance(Joined(room, feed.at, True, None, 0), None)
        return Entrance(Joined(room, feed.at, False, "expired"), None)

    def _held_at(self, session: Session, feed: Feed, entrance: Entrance) -> Entrance:
        """Let a member get nothing new before what it gets first."""
        if not entrance.dropped or self._hub.joined_at(session.id, feed.room) is None:
            return entrance
        hold = self.hold_back(session, feed.room)
        if hold.cursor is None:  # else it is asked whether it may stay, and it was held before
            hold.cursor = feed.position
        return entrance._replace(hold=hold)

    def go(self, entrance: Entrance) -> None:
        """A client has been answered: let it have what follows."""
        if entrance.hold is not None:
            self._catching_up.go(entrance.hold, entrance.dropped)

    def let_in(self, session: Session, entrance: Entrance) -> None:
        """The application has put a client into a room, without a question of the client's."""
        returning = session.returning
        if isinstance(returning, Returning):
            returning.came(entrance)
            return
        hold = entrance.hold
        if hold is not None and entrance.joined.recovered is None:
            came_at(session, hold.room, hold.cursor)
        self.go(entrance)

    def let_in_blind(self, session: Session, hold: Hold[Session]) -> None:
        """A client is in a room of which the engine does not say where its log ends: it gets what is said from then on.

        Where it asks for what was before, it has to be known where it came in.
        """
        if not hold.is_over:
            feed = self._feeds.of(hold.room)
            if hold.cursor is None:  # else a hook has said where it is to begin
                came_at(session, hold.room, feed.position if feed is not None and feed.is_open else None)
            self._catching_up.go(hold)

    def opened(self, feed: Feed) -> None:
        """It has become known where a room's log ends: that is where those came in who were let in before."""
        for session in self._hub.room_members(feed.room):
            if session.starts is not None and feed.room in session.starts and session.starts[feed.room] is None:
                came_at(session, feed.room, feed.position)
