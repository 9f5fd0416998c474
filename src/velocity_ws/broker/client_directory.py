"""ClientDirectory: what is done to one client, wherever it is: asks the node that has it. Knows no other client."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from velocity_ws.broker.entering import Entering, too_far_behind
from velocity_ws.broker.presence import Presence
from velocity_ws.broker.procedures import DISCONNECT, ENTER, JOIN, LEAVE, Where
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.cluster.rpc import UNKNOWN, Procedure
from velocity_ws.errors import BackplaneUnavailable, ClientNotFound, validate_close
from velocity_ws.history.histories import LogOf
from velocity_ws.history.positions import Position
from velocity_ws.history.reading import no_history, parse_since
from velocity_ws.history.recoveries import Entrance, Since
from velocity_ws.history.values import Joined
from velocity_ws.messages.ids import node_of
from velocity_ws.messages.names import validate_text
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.moves import told
from velocity_ws.sessions.session import Session
from velocity_ws.streams.streams import Streams

__all__ = ["ClientDirectory"]

A = TypeVar("A")
R = TypeVar("R")


class OlderNode(BackplaneUnavailable):
    """The node of a client is of an older version, which cannot do what it was asked."""


class ClientDirectory:
    """The clients of all nodes, by their ids; without a cluster, those of this process. On the broker's loop only."""

    def __init__(self, node_id: str, hub: Hub[Session], logs: LogOf) -> None:
        """
        Args:
            node_id: this node's.
            hub: its clients.
            logs: says which rooms have a log.
        """
        self._node_id = node_id
        self._hub = hub
        self._cluster: Cluster | None = None
        self._presence: Presence | None = None
        self._logs = logs
        self._entering: Entering | None = None
        self._streams: Streams | None = None

    def _answer_about_clients(self, cluster: Cluster) -> None:
        """Answer other nodes that ask about a client of this one."""
        cluster.register(JOIN, self._answer_join)
        cluster.register(ENTER, self._answer_enter)
        cluster.register(LEAVE, self._answer_leave)
        cluster.register(DISCONNECT, self._answer_disconnect)

    async def join(self, client_id: str, room: str, since: object = None) -> Joined:
        """Put a client into a room, wherever it is; what is published to it from then on, anywhere, reaches it.

        Args:
            client_id: the client's.
            room: the room.
            since: where the client stands in the room's log, ``"start"``, or a number of its newest messages.

        Raises:
            ClientNotFound: no node has it.
            BrokerError: the hooks that are told of its moves are too far behind.
            HistoryError: there is a ``since``, and it is none, or the room has no history.
            BackplaneUnavailable: its node did not answer; or the engine did not, where there is a ``since``.
        """
        if self._cluster is not None or self._presence is not None:
            validate_text(room)
        session = self._hub.get(client_id)
        if session is None:
            return await self._join_elsewhere(client_id, room, since)
        try:
            if self._entering is not None or since is not None:
                return await self._join_logged(session, room, since)
            if session.moves is not None and session.moves.is_full:
                raise too_far_behind(session)
            await self._settle(session, room, is_new=self._hub.join(client_id, room))
            return Joined(room)
        finally:
            if self._streams is not None:
                self._streams.entrances.let_in(session, room)

    async def let_in(self, session: Session, room: str, since: Since | None) -> Entrance | None:
        """Put a client of this node into a room that it may be in. It gets nothing of the room before `follow`.

        Returns:
            What it is answered; ``None`` where the room has no history, and it gets what is said there already.

        Raises:
            BackplaneUnavailable: the engine that keeps the room's messages cannot be asked now; the client is not in
                the room, if it was not before.
            ClientNotFound: the client has gone meanwhile.
            BrokerError: the hooks that are told of its moves are too far behind.
        """
        if self._entering is not None and self._logs(room) is not None:
            return await self._entering.by_client(session, room, since)
        if session.moves is not None and session.moves.is_full:
            raise too_far_behind(session)
        await self._settle(session, room, is_new=self._hub.join(session.id, room))
        return None

    def follow(self, entrance: Entrance) -> None:
        """A client was answered: let it have what follows."""
        if self._entering is not None:
            self._entering.follow(entrance)

    def let_read(self, session: Session, room: str, have: object) -> None:
        """A client that asked for a room was answered: let it have the streams there, but for what it says it has."""
        if self._streams is not None:
            self._streams.entrances.go(session, room, have)

    async def keep_out(self, session: Session, room: str) -> None:
        """Keep that a client was put out of a room, where that has a history: what is said there is not for it now."""
        if self._entering is not None and self._logs(room) is not None:
            await self._entering.keep_out(session, room)

    async def _join_logged(self, session: Session, room: str, since: object) -> Joined:
        """`join`, where some rooms have a history, or there is a ``since``."""
        where = parse_since(since)
        if self._logs(room) is None:
            if where is not None:
                raise no_history(room)
            await self.let_in(session, room, None)
        elif self._entering is not None:
            return await self._entering.by_application(session, room, where)
        return Joined(room)

    async def _settle(self, session: Session, room: str, *, is_new: bool) -> None:
        """A client was put into a room, where it may have been before: be sure that it is heard."""
        if is_new:
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

    async def _join_elsewhere(self, client_id: str, room: str, since: object) -> Joined:
        if self._is_here(client_id):
            raise ClientNotFound(client_id)
        where = parse_since(since)
        if self._logs(room) is None:
            if where is not None:
                raise no_history(room)
            if not await self._ask_its_node(JOIN, client_id, (client_id, room), otherwise=False):
                raise ClientNotFound(client_id)
            return Joined(room)
        asked = where.at if isinstance(where, Position) else where
        try:
            joined = await self._ask_its_node(ENTER, client_id, (client_id, room, asked), otherwise=None)
        except OlderNode:
            if since is not None:
                raise
            is_there = await self._ask_its_node(JOIN, client_id, (client_id, room), otherwise=False)
            joined = (None, None, None, None) if is_there else None
        if joined is None:
            raise ClientNotFound(client_id)
        return Joined(room, *joined)

    async def leave(self, client_id: str, room: str) -> None:
        """Take a client out of a room, wherever it is; harmless where it is not in it.

        Raises:
            BackplaneUnavailable: its node did not answer.
        """
        if self._is_here(client_id):
            await self._leave_here(client_id, room)
        else:
            await self._ask_its_node(LEAVE, client_id, (client_id, validate_text(room)), otherwise=False)

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
        return await self._ask_its_node(DISCONNECT, client_id, (client_id, code, reason), otherwise=False)

    def _is_here(self, client_id: str) -> bool:
        return self._cluster is None or client_id in self._hub or node_of(client_id) in (None, self._node_id)

    async def _ask_its_node(self, procedure: Procedure[A, R], client_id: str, args: A, *, otherwise: R) -> R:
        """What the node of a client answers; ``otherwise`` where there is no such node."""
        cluster, node_id = self._cluster, node_of(client_id)
        if cluster is None or node_id is None:
            return otherwise
        await cluster.wait_discovered()
        if not cluster.membership.may_live(node_id):
            if not cluster.is_healthy:
                raise BackplaneUnavailable("there is no connection to the engine")
            return otherwise
        replies = await cluster.call(procedure, args, node_id)
        for error in replies.errors.values():
            kind = OlderNode if error.endswith(UNKNOWN) else BackplaneUnavailable
            raise kind(f"node {node_id} could not do it: {error}", nodes=[node_id])
        if replies.missing:
            what = f"node {node_id}, which has the client, did not answer in time"
            raise BackplaneUnavailable(what, "unknown", [node_id])
        return replies.by_node[node_id]

    # --- answers

    async def _answer_join(self, args: tuple[str, str]) -> bool:
        if not self._is_here(args[0]):  # it is not asked any further
            return False
        try:
            await self.join(*args)
        except ClientNotFound:
            return False
        return True

    async def _answer_enter(self, args: tuple[str, str, str | int | None]) -> Where | None:
        if not self._is_here(args[0]):
            return None
        try:
            joined = await self.join(*args)
        except ClientNotFound:
            return None
        return joined.at, joined.recovered, joined.reason, joined.missed

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
