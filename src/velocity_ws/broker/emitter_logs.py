"""EmitterLogs: the rooms with history, for a process that has no kinds of rooms: what nodes have said of theirs.

Knows the engine, and no client.
"""

from __future__ import annotations

import asyncio

from velocity_ws.broker.room_logs import RoomLogs, read_description
from velocity_ws.cluster.topics import Topics
from velocity_ws.errors import BackplaneUnavailable, SettingsError
from velocity_ws.history.appending import Appending
from velocity_ws.history.factory import create_history
from velocity_ws.history.items import Log
from velocity_ws.history.link import HistoryLink
from velocity_ws.history.reading import Reading
from velocity_ws.hooks.kinds import Kinds
from velocity_ws.stats import Counters

__all__ = ["EmitterLogs"]

FRESH = 10.0
"""Seconds for which is believed what nodes have said of their kinds."""


class EmitterLogs:
    """What an emitter knows of rooms with history. On its loop only.

    Attributes:
        appending: what it sends to them.
        reading: what it asks of them.
    """

    def __init__(self, url: str, topics: Topics, node_id: str, *, timeout: float, queue_size: int, engine: str) -> None:
        """
        Args:
            url: the engine's.
            topics: the cluster's.
            node_id: the id of the emitter.
            timeout: seconds that a call may take.
            queue_size: bytes that may wait for the engine.
            engine: what the log calls the engine.
        """
        self._topics = topics
        self._timeout = timeout
        self._link = HistoryLink(
            create_history(url, is_node=False),
            timeout=timeout,
            queue_size=queue_size,
            counters=Counters(),
            engine=engine,
        )
        self.appending = Appending(self._link, node_id)
        self.reading = Reading(self._link, node_id)
        self._logs = RoomLogs(Kinds(), topics)
        self._asked_at: float | None = None
        self._keeps = True
        self._starting = asyncio.Lock()
        self._is_started = False

    def __call__(self, room: str) -> tuple[Log, bool] | None:
        """The log of a room, by what was learned last; ``None`` where it has none."""
        return self._logs(room)

    @property
    def logs(self) -> RoomLogs:
        """The logs of rooms, by what was learned last."""
        return self._logs

    async def learn(self, until: float) -> None:
        """Learn which rooms have a history, where that was not done just now.

        Args:
            until: when it is given up at the latest, in the loop's time; also by those who wait for others to learn it.

        Raises:
            BackplaneUnavailable: the engine did not say it.
        """
        try:
            async with asyncio.timeout_at(until):
                await self._learn()
        except TimeoutError:
            raise BackplaneUnavailable("the engine did not say in time which rooms have a history") from None

    async def _learn(self) -> None:
        async with self._starting:
            now = asyncio.get_running_loop().time()
            if not self._keeps or (self._asked_at is not None and now - self._asked_at < FRESH):
                return
            if not self._is_started:
                self._is_started = True
                try:
                    await self._link.start(self._timeout)
                except SettingsError:  # it keeps no logs, for nobody
                    self._keeps = False
                    await self._link.stop()
                    return
            described = await self._link.kept(self._topics.kinds)
            self._asked_at = now
            if described is not None:  # else it was lost, and what was learned before holds until it is told again
                self._logs = RoomLogs(read_description(described), self._topics)

    def release(self) -> None:
        """Give back the engine without stopping, as the loop was closed. From any thread."""
        self._link.release()

    async def stop(self) -> None:
        """Disconnect from the engine, where it is connected."""
        if self._is_started and self._keeps:
            await self._link.stop()
        else:
            self.release()
