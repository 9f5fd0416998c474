"""ServerAPI: what can be done to clients on any node, the same for a `Broker` and an `Emitter`.

Knows targets and the directory; how to get to the loop where these live is said by its subclasses.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

from velocity_ws.broker.directory import Directory
from velocity_ws.broker.members import ClusterStats, Members
from velocity_ws.broker.target import Publish, Target, TargetFactory
from velocity_ws.concurrency.portal import Portal
from velocity_ws.errors import ClientIdError, validate_close
from velocity_ws.messages.names import name_user, validate_room

__all__ = ["ServerAPI", "validate_client_id"]

T = TypeVar("T")


class Run(Protocol):
    """Awaits a coroutine function on the loop of the directory, from any loop."""

    def __call__(self, function: Callable[..., Coroutine[Any, Any, T]], *args: object) -> Coroutine[Any, Any, T]:
        """What ``function(*args)`` returns."""


class ServerAPI:
    """Messages to clients wherever they are, and what can be asked about them. From any loop, in a coroutine."""

    def __init__(self, portal: Portal, directory: Directory, run: Run, publish: Publish) -> None:
        """
        Args:
            portal: the way to its event loop.
            directory: what is asked there.
            run: the way to ask it.
            publish: sends a message; returns for how many clients of this process it was queued.
        """
        self._portal = portal
        self._directory = directory
        self._run = run
        self._targets = TargetFactory(publish)

    @property
    def portal(self) -> Portal:
        """The way to its event loop. For this package."""
        return self._portal

    def blocking_portal(self) -> Portal:
        """The same, to a loop that a plain thread can wait for. From any thread. For this package."""
        return self._portal

    # --- sending

    async def broadcast(self, event: str, data: Any = None) -> int:
        """Send a message to everyone; returns and raises what `Target.send` does."""
        return await self.to_all().send(event, data)

    async def broadcast_bytes(self, data: bytes) -> int:
        """Send a binary message to everyone; returns and raises what `Target.send_bytes` does."""
        return await self.to_all().send_bytes(data)

    def to_all(self) -> Target:
        """Everyone, as a target: ``broker.to_all().except_(client.id).send(...)``."""
        return self._targets.all()

    def to_room(self, room: str) -> Target:
        """The members of a room.

        Raises:
            InvalidNameError: the room is not a string of at most 256 characters.
        """
        return self._targets.rooms([room])

    def to_rooms(self, rooms: Iterable[str]) -> Target:
        """The members of several rooms; a client in more than one of them gets a message once."""
        return self._targets.rooms(rooms)

    def to_user(self, user_id: str | int) -> Target:
        """All clients of a user, on every node: each tab and device; see ``client.user_id``. 42 is ``"42"``.

        Raises:
            TypeError: the user is named by neither a string nor an integer.
            InvalidNameError: the name is longer than 256 characters.
        """
        return self._targets.users([user_id])

    def to_client(self, client_id: str) -> Target:
        """One client, on any node.

        Raises:
            ClientIdError: it is no id that was given, but the client itself.
        """
        return self._targets.clients([client_id])

    def to_clients(self, client_ids: Iterable[str]) -> Target:
        """Several clients, on any node.

        Raises:
            TypeError: it is one string, and not several.
            ClientIdError: one of them is no id that was given.
        """
        return self._targets.clients(client_ids)

    # --- clients, on any node

    async def join_room(self, client_id: str, room: str) -> None:
        """Put a client, on any node, into a room; harmless when it is there already.

        Whatever is published to the room after this returns reaches the client. Only while the engine cannot be
        reached it returns without that; the client gets ``event: "gap"`` when it can.

        Raises:
            ClientIdError: it is no id that was given, but the client itself.
            ClientNotFound: it is not connected.
            InvalidNameError: the room is not a string of at most 256 characters, or cannot travel between processes.
            BackplaneUnavailable: it is another node's, which did not answer, or was not heard for more than its lease;
                if it was only held up, it may do it later.
        """
        validate_client_id("join_room(client_id, room)", client_id)
        validate_room(room)
        await self._run(self._directory.join, client_id, room)

    async def leave_room(self, client_id: str, room: str) -> None:
        """Take a client, on any node, out of a room; harmless when it is not there. An empty room vanishes.

        Raises:
            ClientIdError: it is no id that was given, but the client itself.
            BackplaneUnavailable: it is another node's, which did not answer.
        """
        validate_client_id("leave_room(client_id, room)", client_id)
        validate_room(room)
        await self._run(self._directory.leave, client_id, room)

    async def disconnect(self, client_id: str, code: int = 1000, reason: str = "") -> bool:
        """Close a client's connection, on any node, as `Client.disconnect` does.

        Returns:
            Whether there was such a client.

        Raises:
            ClientIdError: it is no id that was given, but the client itself.
            InvalidCloseError: the code may not be sent, or the reason is too long.
            BackplaneUnavailable: it is another node's, which did not answer.
        """
        validate_client_id("disconnect(client_id)", client_id)
        validate_close(code, reason)
        return await self._run(self._directory.disconnect, client_id, code, reason)

    async def disconnect_user(self, user_id: str | int, code: int = 1000, reason: str = "") -> int:
        """Close all connections of a user, on every node.

        A node that was not heard for more than its lease is not waited for; if it was only held up, it does it later.

        Returns:
            How many there were.

        Raises:
            TypeError: the user is named by neither a string nor an integer.
            InvalidNameError: the name is longer than 256 characters, or cannot travel between processes.
            InvalidCloseError: the code may not be sent, or the reason is too long.
            BackplaneUnavailable: a node did not answer; those of the others are closed.
        """
        validate_close(code, reason)
        name = name_user(user_id)
        return await self._run(self._directory.disconnect_user, name, code, reason)

    async def members(self, room: str) -> Members:
        """The members of a room, on all nodes; nodes that did not answer in time are named in its ``missing``."""
        validate_room(room)
        return await self._run(self._directory.members, room)

    async def count(self, room: str) -> int:
        """How many clients are in a room, on all nodes that answer in time."""
        validate_room(room)
        return await self._run(self._directory.count, room)

    async def cluster_stats(self) -> ClusterStats:
        """The figures of every node and their sum; nodes that did not answer in time are named."""
        return await self._run(self._directory.stats)


def validate_client_id(call: str, client_id: str) -> str:
    """Check that it is an id that was given.

    Raises:
        ClientIdError: it is something else.
    """
    if not isinstance(client_id, str):
        raise ClientIdError(call, client_id)
    return client_id
