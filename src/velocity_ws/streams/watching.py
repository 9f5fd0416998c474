"""Watching: asks about streams of which nothing is heard, and ends those whose writers are dead by the engine's clock.

Knows no client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.logs import get_logger
from velocity_ws.streams.copies import StreamCopy
from velocity_ws.streams.following import AGAIN, Following
from velocity_ws.streams.items import MAX_LISTED, Ending
from velocity_ws.streams.link import StreamLink
from velocity_ws.streams.pieces import HEADER_SIZE
from velocity_ws.streams.wire import Heads

__all__ = ["Watching"]

log = get_logger("velocity_ws.streams")

LOOK = 0.1
"""Seconds between two looks for streams of which nothing is heard."""
AFTER = 0.1
"""Seconds that are waited beyond a lease."""
FORGET = 10.0
"""Seconds between two looks for streams of which nothing is kept any more."""
MOST_ENDED = 2 * MAX_LISTED
"""Streams of one room that have ended and are known, the newest of them."""
SLACK = 60.0
"""Seconds for which they are known longer: what an engine still has would else be taken for new, and given again. And
seconds after one that is known no more, in which no other is taken for new that somebody asks for."""


class Watching:
    """Watches the streams of the rooms that have members here. On the broker's loop only."""

    def __init__(
        self,
        following: Following,
        link: StreamLink,
        node_id: str,
        *,
        lease: float,
        ttl: float,
        clock: Callable[[], float],
    ) -> None:
        """
        Args:
            following: these streams.
            link: the way to the engine.
            node_id: this node's.
            lease: seconds after which a writer that was not heard may be dead.
            ttl: seconds for which a stream is known here after its end.
            clock: seconds, never going back.
        """
        self._following = following
        self._link = link
        self._node_id = node_id
        self._lease = lease
        self._ttl = ttl
        self._clock = clock

    async def run(self) -> None:
        """Ask about streams of which nothing was heard for as long as their writers' leases; end those of dead ones."""
        forget_at = self._clock() + FORGET
        while True:
            await asyncio.sleep(LOOK)
            try:
                if self._clock() >= forget_at:
                    forget_at = self._clock() + FORGET
                    self._forget_old()
                await self._ask_silent()
            except Exception:  # which is to cost no later look
                log.exception("a look at streams failed in a way it should not")

    async def _ask_silent(self) -> None:
        due = self._clock() - self._lease - AFTER
        silent = [copy for copy in self._following.running if copy.heard_at <= due and not copy.is_repairing]
        if silent and self._link.is_up:
            await asyncio.gather(*[self._ask(copy) for copy in silent])

    def _forget_old(self) -> None:
        """Know no more of streams that ended so long ago that nothing of them is kept."""
        due = self._clock() - self._ttl - SLACK
        for room in self._following.rooms.values():
            self._following.forget(room)
            ended = [copy for copy in room.copies.values() if copy.end]
            beyond = max(len(ended) - MOST_ENDED, 0)  # the oldest, of which nobody is told who comes
            for number, copy in enumerate(ended):
                if number < beyond or copy.heard_at <= due:
                    # It may be kept by the engine still, as long as its writer has said.
                    room.known_since = max(room.known_since, copy.heard_at + SLACK)
                    del room.copies[copy.id]
                    self._following.copies.let_go(copy)

    async def _ask(self, copy: StreamCopy) -> None:
        copy.heard_at = self._clock()  # it is not asked again before there is an answer
        try:
            stream = await self._link.look(copy.id)
            if stream is not None and not stream.end and not stream.left and not stream.is_gone:
                if not self._link.is_steady:
                    copy.heard_at = self._clock() - self._lease + AGAIN
                    return
                head = Heads(self._node_id, copy.room, copy.id).of(HEADER_SIZE)
                stream = await self._link.end(Ending(copy.id, copy.topic, "lost", head, is_of_dead=True))
        except BackplaneUnavailable:
            copy.heard_at = self._clock() - self._lease + AGAIN
            return
        if not self._following.is_followed(copy) or copy.end:
            return
        if stream is None or stream.is_gone:
            self._following.end_here(copy)
        elif not copy.is_of(stream) or stream.end or stream.pieces > copy.number:
            self._following.repair(copy)
        copy.heard_at = self._clock() - (self._lease - (0 if stream is None else stream.left) / 1000)
