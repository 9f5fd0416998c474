"""UserDirectory: all clients of a user, on all nodes: who they are, and what can be done to them.

Knows no other node's clients: each node knows its own, and is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from velocity_ws.broker.members import Connections, UserConnection
from velocity_ws.broker.presence import Presence
from velocity_ws.broker.procedures import CONNECTIONS, DISCONNECT_USER, REMOVE_USER
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.errors import BackplaneUnavailable, validate_close
from velocity_ws.messages.names import validate_text
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.moves import told
from velocity_ws.sessions.session import Session

__all__ = ["UserDirectory"]


class UserDirectory:
    """The users of all nodes; without a cluster, those of this process. On the broker's loop only."""

    def __init__(self, node_id: str, hub: Hub[Session]) -> None:
        """
        Args:
            node_id: this node's.
            hub: its clients.
        """
        self._node_id = node_id
        self._hub = hub
        self._cluster: Cluster | None = None
        self._presence: Presence | None = None
        self._removing: Callable[[str, str], None] = lambda *_: None
        self._keep_removed: Callable[[str, str], Awaitable[None]] = _keep_nothing

    def begin(
        self,
        node_id: str,
        cluster: Cluster | None,
        presence: Presence | None,
        removing: Callable[[str, str], None],
        keep_removed: Callable[[str, str], Awaitable[None]],
    ) -> None:
        """Ask other nodes, and answer them, from now on; see `Directory.begin`.

        Args:
            node_id: as there.
            cluster: as there.
            presence: as there.
            removing: told of a user that is taken out of a room here.
            keep_removed: keeps that a user was removed from a room.
        """
        self._removing, self._keep_removed = removing, keep_removed
        self._node_id = node_id
        self._cluster = cluster
        self._presence = presence
        if cluster is not None:
            cluster.register(CONNECTIONS, self._answer_connections)
            cluster.register(DISCONNECT_USER, self._answer_disconnect)
            cluster.register(REMOVE_USER, self._answer_remove)

    def end(self) -> None:
        """Know no other node any more."""
        self._cluster = self._presence = None
        self._keep_removed = _keep_nothing

    async def connections(self, user_id: str) -> Connections:
        """The clients of a user, on all nodes."""
        here = await self._answer_connections(user_id)
        if self._cluster is None:
            return Connections(here)
        validate_text(user_id)
        replies = await self._cluster.call_all(CONNECTIONS, user_id)
        there = [connection for connections in replies.by_node.values() for connection in connections]
        return Connections(here + there, [*replies.missing, *replies.errors])

    async def is_online(self, user_id: str) -> bool:
        """Whether a user has a client on any node.

        Raises:
            BackplaneUnavailable: none was found, and a node that may have one did not answer.
        """
        cluster = self._cluster
        if self._hub.user_members(user_id) or cluster is None:
            return bool(self._hub.user_members(user_id))
        found = await self.connections(user_id)
        if not found and (found.missing or not cluster.is_healthy):
            raise _silent("the user has no connection here", found.missing)
        return bool(found)

    async def disconnect(self, user_id: str, code: int, reason: str) -> int:
        """Close all connections of a user; how many there were.

        Raises:
            BackplaneUnavailable: a node did not answer; those of the others are closed.
        """
        if self._cluster is not None:
            validate_text(user_id)
        here = await self._answer_disconnect((user_id, code, reason))
        if self._cluster is None:
            return here
        replies = await self._cluster.call_all(DISCONNECT_USER, (user_id, code, reason))
        self._check_all_did({*replies.missing, *replies.errors}, f"{here} connections are closed here")
        return here + sum(replies.by_node.values())

    async def remove(self, user_id: str, room: str) -> int:
        """Take all clients of a user out of a room; how many were in it.

        What was said in it until then, they cannot have any more, where the room has a history.

        Raises:
            BackplaneUnavailable: a node did not answer; on the others they are out. Or the engine did not keep that
                they were removed.
        """
        if self._cluster is not None:
            validate_text(user_id)
            validate_text(room)
        count = await self._answer_remove((user_id, room))
        silent: set[str] = set()
        if self._cluster is not None:
            replies = await self._cluster.call_all(REMOVE_USER, (user_id, room))
            silent = {*replies.missing, *replies.errors}
        done = f"{count} clients are taken out of the room here"
        await self._keep_removed(user_id, room)  # behind the last that was said to them there
        if self._cluster is not None:
            self._check_all_did(silent, done)
            count += sum(replies.by_node.values())
        return count

    def _check_all_did(self, silent: set[str], done: str) -> None:
        if silent or (self._cluster is not None and not self._cluster.is_healthy):
            raise _silent(done, silent)

    # --- answers

    async def _answer_connections(self, user_id: str) -> list[UserConnection]:
        return [
            UserConnection(session.id, self._node_id, session.client.connected_at.timestamp())
            for session in self._hub.user_members(user_id)
        ]

    async def _answer_disconnect(self, args: tuple[str, int, str]) -> int:
        user_id, code, reason = args
        validate_close(code, reason)  # it may be another node's wish
        sessions = self._hub.user_members(user_id)
        for session in sessions:
            session.close((code, reason))
        return len(sessions)

    async def _answer_remove(self, args: tuple[str, str]) -> int:
        user_id, room = args
        self._removing(user_id, room)
        left = [session for session in self._hub.user_members(user_id) if self._hub.leave(session.id, room)]
        if self._presence is not None:
            for session in left:
                self._presence.left(session.id, [room])
        for move in [session.left(room) for session in left]:
            await told(move)
        return len(left)


async def _keep_nothing(user_id: str, room: str) -> None:
    """No room has a history."""


def _silent(done: str, nodes: Iterable[str]) -> BackplaneUnavailable:
    """The error about nodes that did not answer; about all others, where it is not known which there are."""
    silent = sorted(nodes)
    who = ", ".join(silent) or "the others"
    return BackplaneUnavailable(f"{done}; {who} did not answer in time", "unknown", silent)
