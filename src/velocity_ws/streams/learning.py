"""Learning: which streams the rooms of a node have, by asking the engine; again where some may have begun unheard.

Knows no client.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.streams.items import Summary
from velocity_ws.streams.link import StreamLink
from velocity_ws.streams.room_streams import RoomStreams

__all__ = ["AGAIN", "Learning"]

AGAIN = 0.5
"""Seconds until the engine is asked again."""
LOOKS = 200
"""Rooms of which it is asked at once which streams they have."""


class Follows(Protocol):
    """Follows streams. On the broker's loop only."""

    def run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something until the end."""

    def known(self, room: RoomStreams, streams: Sequence[Summary]) -> None:
        """It is known which streams a room has: the newest first."""

    def missed(self, room: RoomStreams, id_: str) -> None:
        """Something of a stream was missed, be it all that there is."""


class Learning:
    """Which streams rooms have. On the broker's loop only."""

    def __init__(self, follows: Follows, link: StreamLink, wait_heard: Callable[[str], Awaitable[bool]]) -> None:
        """
        Args:
            follows: told what is found.
            link: the way to the engine.
            wait_heard: waits until what is published to a room is heard, for a while; whether it is.
        """
        self._follows = follows
        self._link = link
        self._wait_heard = wait_heard
        self._unsure: dict[str, RoomStreams] = {}
        self._looking: asyncio.Task[None] | None = None

    async def learn(self, room: RoomStreams) -> None:
        """Find out which streams a room has."""
        streams: Sequence[Summary] = []
        is_heard = False
        while not room.is_over:
            is_heard = await self._wait_heard(room.room)
            try:
                streams = await self._link.listed(room.topic)
                break
            except BackplaneUnavailable:
                await asyncio.sleep(AGAIN)
        if room.is_over:
            return
        self._follows.known(room, streams)
        if not is_heard:  # more may have begun until it will be
            self.look_at({room.room: room})

    def look_at(self, rooms: Mapping[str, RoomStreams]) -> None:
        """Ask again which streams rooms have: some may have begun of which nothing was heard."""
        self._unsure |= rooms
        if self._unsure and self._looking is None:
            self._looking = self._follows.run(self._look())

    async def _look(self) -> None:
        while self._unsure:
            some = [self._unsure.pop(name) for name in list(self._unsure)[:LOOKS]]
            await asyncio.gather(*[self._look_again(room) for room in some])
        self._looking = None

    async def _look_again(self, room: RoomStreams) -> None:
        streams: Sequence[Summary] | None = None
        if room.is_known and await self._wait_heard(room.room):
            with contextlib.suppress(BackplaneUnavailable):
                streams = await self._link.listed(room.topic)
        if room.is_over:
            return
        if streams is None:  # it may be that the first answer, which is on its way, is older than the connection
            await asyncio.sleep(AGAIN)
            self._unsure.setdefault(room.room, room)
            return
        for stream in reversed(streams):
            if stream.id not in room.copies:
                self._follows.missed(room, stream.id)
