"""Directory: clients and their rooms, wherever they are. Asks the node that has a client, or all nodes.

Knows no other node's clients: each node knows its own, and is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from velocity_ws.broker.authorization import Authorization
from velocity_ws.broker.client_directory import ClientDirectory
from velocity_ws.broker.entering import Entering
from velocity_ws.broker.members import ClusterStats, Members, RoomMember
from velocity_ws.broker.presence import Presence
from velocity_ws.broker.procedures import COUNT, MEMBERS, STATS
from velocity_ws.broker.revocation import Revocation
from velocity_ws.broker.user_directory import UserDirectory
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history.histories import Histories, LogOf
from velocity_ws.history.items import Log
from velocity_ws.history.reading import Reading, no_history
from velocity_ws.history.recoveries import user_mark
from velocity_ws.history.values import Entry
from velocity_ws.messages.names import validate_text
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.session import Session
from velocity_ws.stats import Stats
from velocity_ws.streams.streams import Streams

__all__ = ["Directory"]

A = TypeVar("A")
R = TypeVar("R")


class Directory(ClientDirectory):
    """The clients of all nodes; without a cluster, those of this process. On the broker's loop only.

    Attributes:
        users: what is asked and done about all clients of a user.
        revocation: has all nodes ask again who may be in rooms.
    """

    def __init__(self, node_id: str, hub: Hub[Session], stats: Callable[[], Stats] | None, logs: LogOf) -> None:
        """
        Args:
            node_id: this node's.
            hub: its clients.
            stats: its figures; ``None`` where it is no node but only asks.
            logs: says which rooms have a log.
        """
        self.users = UserDirectory(node_id, hub)
        self.revocation = Revocation()
        super().__init__(node_id, hub, logs)
        self._stats = stats
        self._reading: Reading | None = None

    def begin(
        self,
        node_id: str,
        cluster: Cluster | None,
        presence: Presence | None,
        authorization: Authorization | None = None,
        histories: Histories | None = None,
        reading: Reading | None = None,
        streams: Streams | None = None,
    ) -> None:
        """Ask other nodes, and answer them, from now on.

        Args:
            node_id: this node's, from now on.
            cluster: the way to the others; ``None`` where there are none.
            presence: what is told who joins and leaves; ``None`` where no room has it.
            authorization: asks who may be in rooms; ``None`` where there are no clients.
            histories: what rooms remember, for clients; ``None`` where no room has a history, or there are no clients.
            reading: what rooms remember; ``None`` where no room has a history.
            streams: what is read piece by piece; ``None`` where there are no clients.
        """
        self._node_id = node_id
        self._cluster = cluster
        self._presence = presence
        if histories is not None:
            self._entering = Entering(self._hub, histories, self._settle, self.take_out)
        self._reading = reading
        self._streams = streams
        removing = _nobody_comes if authorization is None else authorization.user_removed
        self.users.begin(node_id, cluster, presence, removing, self._keep_removed)
        self.revocation.begin(cluster, authorization)
        if cluster is not None:
            self._answer_about_clients(cluster)
            cluster.register(MEMBERS, self._answer_members)
            cluster.register(COUNT, self._answer_count)
            cluster.register(STATS, self._answer_stats)

    def end(self) -> None:
        """Know no other node any more."""
        self._cluster = self._presence = self._entering = self._reading = self._streams = None
        self.users.end()
        self.revocation.end()

    # --- what rooms remember

    async def history(self, room: str, since: str | None, limit: int, reverse: bool) -> list[Entry]:
        """The messages of a room's log; see `ServerAPI.history`."""
        log, is_latest = self._log(room)  # before it is asked whether anything can be read: most brokers have no log
        return await self._reads().history(log, since, limit, reverse=reverse, is_latest=is_latest)

    async def clear_history(self, room: str) -> None:
        """Forget the messages of a room's log; see `ServerAPI.clear_history`."""
        log, _ = self._log(room)
        await self._reads().clear(log)

    async def _keep_removed(self, user_id: str, room: str) -> None:
        """Keep that a user was removed from a room, where that has a history."""
        found = self._logs(room)
        if found is not None:
            await self._reads().remove(found[0], user_mark(user_id))

    def _log(self, room: str) -> tuple[Log, bool]:
        found = self._logs(room)
        if found is None:
            raise no_history(room)
        return found

    def _reads(self) -> Reading:
        if self._reading is None:
            raise BackplaneUnavailable("the broker is not started")
        return self._reading

    # --- all nodes

    async def members(self, room: str) -> Members:
        """The members of a room, on all nodes."""
        here = await self._answer_members(room)
        if self._cluster is None:
            return Members(here)
        validate_text(room)
        replies = await self._cluster.call_all(MEMBERS, room)
        there = [member for members in replies.by_node.values() for member in members]
        return Members(here + there, [*replies.missing, *replies.errors])

    async def count(self, room: str) -> int:
        """How many clients are in a room, on all nodes that answer."""
        here = await self._answer_count(room)
        if self._cluster is None:
            return here
        validate_text(room)
        return here + sum((await self._cluster.call_all(COUNT, room)).by_node.values())

    async def stats(self) -> ClusterStats:
        """The figures of all nodes that answer."""
        nodes = {} if self._stats is None else {self._node_id: self._stats()}
        missing: list[str] = []
        if self._cluster is not None:
            replies = await self._cluster.call_all(STATS, None)
            nodes.update(replies.by_node)
            missing = [*replies.missing, *replies.errors]
        return ClusterStats.of(nodes, missing)

    # --- answers

    async def _answer_members(self, room: str) -> list[RoomMember]:
        return [
            RoomMember(session.id, session.user_id, self._node_id, since)
            for session in self._hub.room_members(room)
            if (since := self._hub.joined_at(session.id, room)) is not None
        ]

    async def _answer_count(self, room: str) -> int:
        return len(self._hub.room_members(room))

    async def _answer_stats(self, nothing: None) -> Any:  # noqa: ARG002 - a question has arguments
        return None if self._stats is None else self._stats()


def _nobody_comes(user_id: str, room: str) -> None:
    """There are no clients here."""
