"""Directory: clients wherever they are. Asks the node that has one, or all nodes, and answers the same of others.

Nothing is kept about other nodes' clients: each node knows its own, and is asked. Used on the broker's loop only.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import msgspec

from velocity_ws.broker.members import ClusterStats, Members, RoomMember
from velocity_ws.close import MAX_REASON_BYTES
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.cluster.envelopes import ClientId, Count, Name
from velocity_ws.cluster.rpc import Question
from velocity_ws.errors import BackplaneUnavailable, ClientNotFound, validate_close
from velocity_ws.messages.ids import node_of
from velocity_ws.messages.names import MAX_NAME_LENGTH, validate_text
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.session import Session
from velocity_ws.stats import Stats

__all__ = ["Directory"]

A = TypeVar("A")

Code = Annotated[int, msgspec.Meta(ge=1000, le=4999)]
Reason = Annotated[str, msgspec.Meta(max_length=MAX_REASON_BYTES)]


def _are_members(members: list[RoomMember]) -> bool:
    return all(
        node_of(member.client_id) is not None
        and node_of(f"{member.node}.x") is not None
        and len(member.user or "") <= MAX_NAME_LENGTH
        and math.isfinite(member.since)
        for member in members
    )


def _are_figures(stats: Stats) -> bool:
    return all(math.isfinite(value) and value >= 0 for value in stats.to_dict().values())


_JOIN: Question[tuple[str, str], bool] = Question("join", tuple[ClientId, Name], bool)
_LEAVE: Question[tuple[str, str], bool] = Question("leave", tuple[ClientId, Name], bool)
_DISCONNECT: Question[tuple[str, int, str], bool] = Question("disconnect", tuple[ClientId, Code, Reason], bool)
_DISCONNECT_USER: Question[tuple[str, int, str], int] = Question(
    "disconnect_user", tuple[Name, Code, Reason], Count, is_order=True
)
_MEMBERS: Question[str, list[RoomMember]] = Question("members", Name, list[RoomMember], _are_members)
_COUNT: Question[str, int] = Question("count", Name, Count)
_STATS: Question[None, Stats] = Question("stats", type(None), Stats, _are_figures)


class Directory:
    """See the module. Without a cluster it knows the clients of this process only."""

    def __init__(
        self,
        node_id: str,
        hub: Hub[Session],
        stats: Callable[[], Stats] | None,
        join: Callable[[str, str], Awaitable[None]],
        leave: Callable[[str, str], Awaitable[None]],
        cluster: Cluster | None,
    ) -> None:
        """
        Args:
            node_id: this node's.
            hub: its clients.
            stats: its figures; ``None`` where it is no node but only asks.
            join: puts one of its clients into a room.
            leave: takes one out of a room.
            cluster: the way to the others.
        """
        self._node_id = node_id
        self._hub = hub
        self._stats = stats
        self._join = join
        self._leave = leave
        self._cluster = cluster
        if cluster is not None:
            cluster.on(_JOIN, self._answer_join)
            cluster.on(_LEAVE, self._answer_leave)
            cluster.on(_DISCONNECT, self._answer_disconnect)
            cluster.on(_DISCONNECT_USER, self._answer_disconnect_user)
            cluster.on(_MEMBERS, self._answer_members)
            cluster.on(_COUNT, self._answer_count)
            cluster.on(_STATS, self._answer_stats)

    # --- one client

    async def join(self, client_id: str, room: str) -> None:
        """Put a client into a room, wherever it is.

        Raises:
            ClientNotFound: no node has it.
            BackplaneUnavailable: its node did not answer.
        """
        if self._is_here(client_id):
            await self._join(client_id, room)
        elif not await self._ask_its_node(_JOIN, client_id, (client_id, validate_text(room))):
            raise ClientNotFound(client_id)

    async def leave(self, client_id: str, room: str) -> None:
        """Take a client out of a room, wherever it is.

        Raises:
            BackplaneUnavailable: its node did not answer.
        """
        if self._is_here(client_id):
            await self._leave(client_id, room)
        else:
            await self._ask_its_node(_LEAVE, client_id, (client_id, validate_text(room)))

    async def disconnect(self, client_id: str, code: int, reason: str) -> bool:
        """Close a client's connection, wherever it is; whether some node had it.

        Raises:
            BackplaneUnavailable: its node did not answer.
        """
        if self._is_here(client_id):
            return await self._answer_disconnect((client_id, code, reason))
        return await self._ask_its_node(_DISCONNECT, client_id, (client_id, code, reason))

    def _is_here(self, client_id: str) -> bool:
        return self._cluster is None or client_id in self._hub or node_of(client_id) in (None, self._node_id)

    async def _ask_its_node(self, question: Question[A, bool], client_id: str, args: A) -> bool:
        cluster, node_id = self._cluster, node_of(client_id)
        if cluster is None or node_id is None:
            return False
        await cluster.introduced()
        if not cluster.peers.may_live(node_id):
            if not cluster.is_healthy:
                raise BackplaneUnavailable("there is no connection to the engine")
            return False
        replies = await cluster.ask(question, args, node_id)
        for error in replies.errors.values():
            raise BackplaneUnavailable(f"node {node_id} could not do it: {error}")
        if replies.missing:
            raise BackplaneUnavailable(f"node {node_id}, which has the client, did not answer in time", "unknown")
        return replies.by_node[node_id]

    # --- all nodes

    async def disconnect_user(self, user_id: str, code: int, reason: str) -> int:
        """Close all connections of a user; how many there were.

        Raises:
            BackplaneUnavailable: a node did not answer; those of the others are closed.
        """
        if self._cluster is not None:
            validate_text(user_id)
        here = await self._answer_disconnect_user((user_id, code, reason))
        if self._cluster is None:
            return here
        replies = await self._cluster.ask_all(_DISCONNECT_USER, (user_id, code, reason))
        silent = sorted({*replies.missing, *replies.errors})
        if silent or not self._cluster.is_healthy:
            who = ", ".join(silent) or "the others"
            raise BackplaneUnavailable(f"{here} connections are closed here; {who} did not answer in time", "unknown")
        return here + sum(replies.by_node.values())

    async def members(self, room: str) -> Members:
        """Who is in a room, on all nodes."""
        here = await self._answer_members(room)
        if self._cluster is None:
            return Members(here)
        validate_text(room)
        replies = await self._cluster.ask_all(_MEMBERS, room)
        there = [member for members in replies.by_node.values() for member in members]
        return Members(here + there, [*replies.missing, *replies.errors])

    async def count(self, room: str) -> int:
        """How many clients are in a room, on all nodes that answer."""
        here = await self._answer_count(room)
        if self._cluster is None:
            return here
        validate_text(room)
        return here + sum((await self._cluster.ask_all(_COUNT, room)).by_node.values())

    async def stats(self) -> ClusterStats:
        """The figures of all nodes that answer."""
        nodes = {} if self._stats is None else {self._node_id: self._stats()}
        missing: list[str] = []
        if self._cluster is not None:
            replies = await self._cluster.ask_all(_STATS, None)
            nodes.update(replies.by_node)
            missing = [*replies.missing, *replies.errors]
        return ClusterStats.of(nodes, missing)

    # --- answers

    async def _answer_join(self, args: tuple[str, str]) -> bool:
        try:
            await self._join(*args)
        except ClientNotFound:
            return False
        return True

    async def _answer_leave(self, args: tuple[str, str]) -> bool:
        await self._leave(*args)
        return True

    async def _answer_disconnect(self, args: tuple[str, int, str]) -> bool:
        client_id, code, reason = args
        validate_close(code, reason)  # it may be another node's wish
        session = self._hub.get(client_id)
        if session is None:
            return False
        session.disconnect(code, reason)
        return True

    async def _answer_disconnect_user(self, args: tuple[str, int, str]) -> int:
        user_id, code, reason = args
        validate_close(code, reason)
        sessions = self._hub.user_members(user_id)
        for session in sessions:
            session.disconnect(code, reason)
        return len(sessions)

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
