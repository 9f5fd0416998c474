"""Directory: clients and their rooms, wherever they are. Asks the node that has a client, or all nodes.

Knows no other node's clients: each node knows its own, and is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from velocity_ws.broker.authorization import Authorization
from velocity_ws.broker.members import ClusterStats, Members, RoomMember
from velocity_ws.broker.presence import Presence
from velocity_ws.broker.procedures import COUNT, DISCONNECT, JOIN, LEAVE, MEMBERS, STATS
from velocity_ws.broker.revocation import Revocation
from velocity_ws.broker.user_directory import UserDirectory
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.cluster.rpc import Procedure
from velocity_ws.errors import BackplaneUnavailable, BrokerError, ClientNotFound, validate_close
from velocity_ws.messages.ids import node_of
from velocity_ws.messages.names import validate_text
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.moves import told
from velocity_ws.sessions.session import Session
from velocity_ws.stats import Stats

__all__ = ["Directory"]

A = TypeVar("A")


class Directory:
    """The clients of all nodes; without a cluster, those of this process. On the broker's loop only.

    Attributes:
        users: what is asked and done about all clients of a user.
        revocation: has all nodes ask again who may be in rooms.
    """

    def __init__(self, node_id: str, hub: Hub[Session], stats: Callable[[], Stats] | None) -> None:
        """
        Args:
            node_id: this node's.
            hub: its clients.
            stats: its figures; ``None`` where it is no node but only asks.
        """
        self.users = UserDirectory(node_id, hub)
        self.revocation = Revocation()
        self._node_id = node_id
        self._hub = hub
        self._stats = stats
        self._cluster: Cluster | None = None
        self._presence: Presence | None = None

    def begin(
        self,
        node_id: str,
        cluster: Cluster | None,
        presence: Presence | None,
        authorization: Authorization | None = None,
    ) -> None:
        """Ask other nodes, and answer them, from now on.

        Args:
            node_id: this node's, from now on.
            cluster: the way to the others; ``None`` where there are none.
            presence: what is told who joins and leaves; ``None`` where no room has it.
            authorization: asks who may be in rooms; ``None`` where there are no clients.
        """
        self._node_id = node_id
        self._cluster = cluster
        self._presence = presence
        self.users.begin(node_id, cluster, presence)
        self.revocation.begin(cluster, authorization)
        if cluster is not None:
            cluster.register(JOIN, self._answer_join)
            cluster.register(LEAVE, self._answer_leave)
            cluster.register(DISCONNECT, self._answer_disconnect)
            cluster.register(MEMBERS, self._answer_members)
            cluster.register(COUNT, self._answer_count)
            cluster.register(STATS, self._answer_stats)

    def end(self) -> None:
        """Know no other node any more."""
        self._cluster = self._presence = None
        self.users.end()
        self.revocation.end()

    # --- one client

    async def join(self, client_id: str, room: str) -> None:
        """Put a client into a room, wherever it is; what is published to it from then on, anywhere, reaches it.

        Raises:
            ClientNotFound: no node has it.
            BrokerError: the hooks that are told of its moves are too far behind.
            BackplaneUnavailable: its node did not answer.
        """
        if self._cluster is not None or self._presence is not None:
            validate_text(room)
        session = self._hub.get(client_id)
        if session is None:
            await self._join_elsewhere(client_id, room)
            return
        if session.moves is not None and session.moves.is_full:
            raise BrokerError(
                f"on_join and on_leave hooks are too far behind the moves of client {client_id}: one does not return"
            )
        if self._hub.join(client_id, room):
            await self._came(session, room)
        elif self._cluster is not None:
            await self._cluster.wait_subscribed("room", room)

    async def _came(self, session: Session, room: str) -> None:
        """A client has come into a room: have other nodes know, and tell its members and the hooks."""
        since = self._hub.joined_at(session.id, room)
        move: asyncio.Future[None] | None = None
        presence: Presence | None = None
        failure: Exception | None = None
        try:
            if self._cluster is not None:
                await self._cluster.wait_subscribed("room", room)
        finally:  # it is in the room, also where the caller does not wait any more
            # Unless it has left meanwhile, and may have come again, which is for that call to tell.
            if self._hub.joined_at(session.id, room) == since:
                presence = self._presence
                if presence is not None:
                    failure = presence.joined(session, room)
                move = session.joined(room)
        if presence is not None and failure is not None:
            await presence.report(session.client, failure)
        await told(move)

    async def _join_elsewhere(self, client_id: str, room: str) -> None:
        if self._is_here(client_id) or not await self._ask_its_node(JOIN, client_id, (client_id, room)):
            raise ClientNotFound(client_id)

    async def leave(self, client_id: str, room: str) -> None:
        """Take a client out of a room, wherever it is; harmless where it is not in it.

        Raises:
            BackplaneUnavailable: its node did not answer.
        """
        if self._is_here(client_id):
            await self._leave_here(client_id, room)
        else:
            await self._ask_its_node(LEAVE, client_id, (client_id, validate_text(room)))

    async def _leave_here(self, client_id: str, room: str) -> None:
        session = self._hub.get(client_id)
        if session is not None:
            await told(self.take_out(session, room))

    def take_out(self, session: Session, room: str) -> asyncio.Future[None] | None:
        """Take a client of this node out of a room, if it is there; what is done when the hooks are told of it."""
        if not self._hub.leave(session.id, room):
            return None
        if self._presence is not None:
            self._presence.left(session.id, [room])
        return session.left(room)

    def remove(self, client_id: str) -> frozenset[str]:
        """Take a client of this node out of everything; the rooms it was in."""
        rooms = self._hub.remove(client_id)
        if rooms and self._presence is not None:
            self._presence.left(client_id, rooms)
        return rooms

    async def disconnect(self, client_id: str, code: int, reason: str) -> bool:
        """Close a client's connection, wherever it is; whether some node had it.

        Raises:
            BackplaneUnavailable: its node did not answer.
        """
        if self._is_here(client_id):
            return await self._answer_disconnect((client_id, code, reason))
        return await self._ask_its_node(DISCONNECT, client_id, (client_id, code, reason))

    def _is_here(self, client_id: str) -> bool:
        return self._cluster is None or client_id in self._hub or node_of(client_id) in (None, self._node_id)

    async def _ask_its_node(self, procedure: Procedure[A, bool], client_id: str, args: A) -> bool:
        cluster, node_id = self._cluster, node_of(client_id)
        if cluster is None or node_id is None:
            return False
        await cluster.wait_discovered()
        if not cluster.membership.may_live(node_id):
            if not cluster.is_healthy:
                raise BackplaneUnavailable("there is no connection to the engine")
            return False
        replies = await cluster.call(procedure, args, node_id)
        for error in replies.errors.values():
            raise BackplaneUnavailable(f"node {node_id} could not do it: {error}", nodes=[node_id])
        if replies.missing:
            what = f"node {node_id}, which has the client, did not answer in time"
            raise BackplaneUnavailable(what, "unknown", [node_id])
        return replies.by_node[node_id]

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

    async def _answer_join(self, args: tuple[str, str]) -> bool:
        if not self._is_here(args[0]):  # it is not asked any further
            return False
        try:
            await self.join(*args)
        except ClientNotFound:
            return False
        return True

    async def _answer_leave(self, args: tuple[str, str]) -> bool:
        await self._leave_here(*args)
        return True

    async def _answer_disconnect(self, args: tuple[str, int, str]) -> bool:
        client_id, code, reason = args
        validate_close(code, reason)  # it may be another node's wish
        session = self._hub.get(client_id)
        if session is None:
            return False
        session.close((code, reason))
        return True

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
