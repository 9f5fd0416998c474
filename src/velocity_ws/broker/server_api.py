"""ServerAPI: what can be done to clients on any node, the same for a `Broker` and an `Emitter`.

Knows the directory; how to get to the loop where these live is said by its subclasses.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

from velocity_ws.broker.directory import Directory
from velocity_ws.broker.history_api import HistoryAPI, Run
from velocity_ws.broker.members import ClusterStats, Connections, Members
from velocity_ws.broker.streams_api import StreamsAPI
from velocity_ws.broker.target import Publish, Tell
from velocity_ws.concurrency.portal import Portal
from velocity_ws.errors import ClientIdError, validate_close
from velocity_ws.history.values import Joined
from velocity_ws.messages.names import name_user, validate_room

__all__ = ["ServerAPI", "validate_client_id"]

T = TypeVar("T")


class ServerAPI(HistoryAPI):
    """Messages to clients wherever they are, and what can be asked about them. From any loop, in a coroutine."""

    def __init__(self, portal: Portal, directory: Directory, run: Run, publish: Publish, tell: Tell) -> None:
        """
        Args:
            portal: the way to its event loop.
            directory: what is asked there.
            run: the way to ask it.
            publish: sends a message; returns for how many clients of this process it was queued.
            tell: tells all nodes something.
        """
        super().__init__(directory, run, publish, tell)
        self._portal = portal

    @property
    @abstractmethod
    def streams(self) -> StreamsAPI:
        """What is said piece by piece, and outlives every connection."""

    @property
    def portal(self) -> Portal:
        """The way to its event loop. For this package."""
        return self._portal

    def blocking_portal(self) -> Portal:
        """The same, to a loop that a plain thread can wait for. From any thread. For this package."""
        return self._portal

    # --- clients, on any node

    async def join_room(self, client_id: str, room: str, *, since: str | int | None = None) -> Joined:
        """Put a client, on any node, into a room; does nothing if it is there. From any loop, in a coroutine.

        What is published to the room after this returns, on any node, reaches the client. If the engine cannot be
        reached, it returns before that; the client gets a ``gap`` event later. In a room with history it stands at no
        place then, and gets what is said from the engine's return on.

        Args:
            client_id: the ``id`` of the client.
            room: the name of the room, a string of at most 256 characters.
            since: where the client stopped, in a room with history: the ``at`` of what it had last; or ``"start"``, or
                a number of the newest messages. It gets what came after that, before anything new.

        Returns:
            Where it stands, and whether it gets all that it has missed.

        Raises:
            ClientIdError: the argument is not a string; pass ``client.id``, not the client.
            ClientNotFound: the client is not connected.
            HistoryError: ``since`` is nothing of that, or the room has no history. The client is not in the room.
            InvalidNameError: the room is not a string of at most 256 characters, or cannot be sent to other
                processes.
            BrokerError: the ``on_join`` and ``on_leave`` hooks of the client are too far behind.
            BackplaneUnavailable: the client's node did not answer, or has been silent for longer than its lease. If it
                was only slow, it may still do it later. Or there is a ``since``, and the engine could not be asked: the
                client is not in the room then, if it was not before.
        """
        validate_client_id("join_room(client_id, room)", client_id)
        validate_room(room)
        if since is None:
            return await self._run(self._directory.join, client_id, room)
        return await self._run(self._directory.join, client_id, room, since)

    async def leave_room(self, client_id: str, room: str) -> None:
        """Take a client, on any node, out of a room. From any loop, in a coroutine.

        Does nothing if the client is not in the room, or not connected. A room ends with its last member. The client
        is told nothing (no ``left``), and may join again if it could before; to revoke rights use `reauthorize`.

        Args:
            client_id: the ``id`` of the client.
            room: the name of the room, a string of at most 256 characters.

        Raises:
            InvalidNameError: the room is not a string of at most 256 characters, or cannot be sent to other processes.
            ClientIdError: the argument is not a string; pass ``client.id``, not the client.
            BackplaneUnavailable: the client's node did not answer, or has been silent for longer than its lease. If it
                was only slow, it may still do it later.
        """
        validate_client_id("leave_room(client_id, room)", client_id)
        validate_room(room)
        await self._run(self._directory.leave, client_id, room)

    async def disconnect(self, client_id: str, code: int = 1000, reason: str = "") -> bool:
        """Close a client's connection, on any node, as `Client.disconnect` does. From any loop, in a coroutine.

        Args:
            client_id: the ``id`` of the client.
            code: 1000, or 4000 to 4999 for the application's own; the protocol uses the others.
            reason: at most 123 bytes of UTF-8.

        Returns:
            Whether the client was connected.

        Raises:
            ClientIdError: the argument is not a string; pass ``client.id``, not the client.
            InvalidCloseError: the code may not be sent, or the reason is too long.
            BackplaneUnavailable: the client's node did not answer, or has been silent for longer than its lease. If it
                was only slow, it may still do it later.
        """
        validate_client_id("disconnect(client_id)", client_id)
        validate_close(code, reason)
        return await self._run(self._directory.disconnect, client_id, code, reason)

    async def disconnect_user(self, user_id: str | int, code: int = 1000, reason: str = "") -> int:
        """Close all connections of a user, on every node. From any loop, in a coroutine.

        A node that has been silent for longer than its lease is not waited for; if it was only slow, it does it later.

        Args:
            user_id: as in ``client.user_id``; the integer 42 means ``"42"``.
            code: 1000, or 4000 to 4999 for the application's own; the protocol uses the others.
            reason: at most 123 bytes of UTF-8.

        Returns:
            The number of connections.

        Raises:
            TypeError: ``user_id`` is neither a string nor an integer.
            InvalidNameError: the id is longer than 256 characters, or cannot be sent to other processes.
            InvalidCloseError: the code may not be sent, or the reason is too long.
            BackplaneUnavailable: a node did not answer; the connections on the other nodes are closed.
        """
        validate_close(code, reason)
        name = name_user(user_id)
        return await self._run(self._directory.users.disconnect, name, code, reason)

    async def remove_user(self, user_id: str | int, room: str) -> int:
        """Take all clients of a user, on every node, out of a room. From any loop, in a coroutine.

        The clients are told nothing (no ``left``), and may join again at once if they could before: this is not a ban.
        To revoke rights use `reauthorize`. Waits for what `leave_room` waits for. A node that has been silent for
        longer than its lease is not waited for; if it was only slow, it does it later.

        Args:
            user_id: as in ``client.user_id``; the integer 42 means ``"42"``.
            room: the name of the room, a string of at most 256 characters.

        Returns:
            The number of clients that were in the room.

        Raises:
            TypeError: ``user_id`` is neither a string nor an integer.
            InvalidNameError: the id or the room is longer than 256 characters, or cannot be sent to other processes.
            BackplaneUnavailable: a node did not answer; the clients on the other nodes are out of the room.
        """
        name = name_user(user_id)
        validate_room(room)
        return await self._run(self._directory.users.remove, name, room)

    async def is_online(self, user_id: str | int) -> bool:
        """Say whether a user has a client on any node. From any loop, in a coroutine.

        Args:
            user_id: as in ``client.user_id``; the integer 42 means ``"42"``.

        Raises:
            TypeError: ``user_id`` is neither a string nor an integer.
            InvalidNameError: the id is longer than 256 characters, or cannot be sent to other processes.
            BackplaneUnavailable: no node that answered has one, and not all did.
        """
        return await self._run(self._directory.users.is_online, name_user(user_id))

    async def connections(self, user_id: str | int) -> Connections:
        """The clients of a user, on all nodes. From any loop, in a coroutine.

        Args:
            user_id: as in ``client.user_id``; the integer 42 means ``"42"``.

        Returns:
            The clients; its ``missing`` names the nodes that did not answer in time.

        Raises:
            TypeError: ``user_id`` is neither a string nor an integer.
            InvalidNameError: the id is longer than 256 characters, or cannot be sent to other processes.
        """
        return await self._run(self._directory.users.connections, name_user(user_id))

    async def reauthorize(self, room: str | None = None, user_id: str | int | None = None) -> None:
        """Ask again who may be in rooms, on all nodes: the ``authorize`` of each room's kind, for each of its members.

        Call it when rights have changed, and **are committed**: what ``authorize`` reads in a database is what it was
        until then, and a session that commits when its handler or route has ended does so too late. As soon as a node
        hears it, what is said in the rooms is held for the members that are asked about. Who is refused is out of the
        room, and gets ``event: "left"`` and nothing of what was held; the others get that first. Members that
        `join_room` has put in are asked about too. Returns when there is an answer for all. From then on nothing of the
        room is queued any more for who was refused.

        Without arguments it asks about all members of all rooms of kinds that have an ``authorize``. From any loop, in
        a coroutine.

        Args:
            room: only the members of this room, a string of at most 256 characters.
            user_id: only the clients of this user, as in ``client.user_id``; the integer 42 means ``"42"``.

        Raises:
            TypeError: ``user_id`` is neither a string nor an integer.
            InvalidNameError: the room is not a string of at most 256 characters, or a name cannot be sent to other
                processes.
            HookError: an ``authorize`` calls this, and would wait for its own answer.
            BackplaneUnavailable: a node (see ``nodes``) has not confirmed within ``WS_BACKPLANE_TIMEOUT`` that it holds
                what is said to these members. As soon as it hears the others again, it asks about all its members
                before it delivers anything more in their rooms.
        """
        name = None if user_id is None else name_user(user_id)
        if room is not None:
            validate_room(room)
        await self._run(self._directory.revocation.reauthorize, room, name)

    async def members(self, room: str) -> Members:
        """The members of a room, on all nodes. From any loop, in a coroutine.

        Args:
            room: the name of the room, a string of at most 256 characters.

        Returns:
            The members; its ``missing`` names the nodes that did not answer in time.

        Raises:
            InvalidNameError: the room is not a string of at most 256 characters, or cannot be sent to other processes.
        """
        validate_room(room)
        return await self._run(self._directory.members, room)

    async def count(self, room: str) -> int:
        """The number of clients in a room, on all nodes that answer in time. From any loop, in a coroutine.

        Args:
            room: the name of the room, a string of at most 256 characters.

        Raises:
            InvalidNameError: the room is not a string of at most 256 characters, or cannot be sent to other processes.
        """
        validate_room(room)
        return await self._run(self._directory.count, room)

    async def cluster_stats(self) -> ClusterStats:
        """The figures of all nodes, and their sum. From any loop, in a coroutine.

        Returns:
            The figures; its ``missing`` names the nodes that did not answer in time.
        """
        return await self._run(self._directory.stats)


def validate_client_id(call: str, client_id: str) -> str:
    """Return an argument that has to be the id of a client.

    Raises:
        ClientIdError: the argument is not a string.
    """
    if not isinstance(client_id, str):
        raise ClientIdError(call, client_id)
    return client_id
