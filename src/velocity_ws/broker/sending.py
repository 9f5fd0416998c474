"""SendingAPI: to whom a message can go, the same for a `Broker` and an `Emitter`. Knows targets, and asks nobody."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from velocity_ws.broker.target import Nodes, Publish, Target, TargetFactory, Tell
from velocity_ws.history.values import Sent

__all__ = ["SendingAPI"]


class SendingAPI:
    """Messages to clients wherever they are. From any loop, in a coroutine."""

    def __init__(self, publish: Publish, tell: Tell) -> None:
        """
        Args:
            publish: sends a message; returns for how many clients of this process it was queued.
            tell: tells all nodes something.
        """
        self._targets = TargetFactory(publish)
        self._nodes = Nodes(tell)

    async def broadcast(self, event: str, data: Any = None, *, volatile: bool = False, key: str | None = None) -> Sent:
        """Send a message to all clients, as `Target.send` does. From any loop, in a coroutine."""
        return await self.to_all().send(event, data, volatile=volatile, key=key)

    async def broadcast_bytes(self, data: bytes, *, volatile: bool = False, key: str | None = None) -> Sent:
        """Send a binary message to all clients, as `Target.send_bytes` does. From any loop, in a coroutine."""
        return await self.to_all().send_bytes(data, volatile=volatile, key=key)

    def to_all(self) -> Target:
        """All clients: ``broker.to_all().except_(client.id).send(...)``. From any thread."""
        return self._targets.all()

    def to_room(self, room: str) -> Target:
        """The members of a room, on all nodes. From any thread.

        Raises:
            InvalidNameError: the room is not a string of at most 256 characters.
        """
        return self._targets.rooms([room])

    def to_rooms(self, rooms: Iterable[str]) -> Target:
        """The members of several rooms; a client in more than one of them gets a message once. From any thread.

        Raises:
            TypeError: a single string was given; use `to_room`.
            InvalidNameError: a room is not a string of at most 256 characters.
        """
        return self._targets.rooms(rooms)

    def to_user(self, user_id: str | int) -> Target:
        """All clients of a user, on all nodes: each tab and device. From any thread.

        Args:
            user_id: as in ``client.user_id``; the integer 42 means ``"42"``.

        Raises:
            TypeError: the argument is neither a string nor an integer.
            InvalidNameError: the id is longer than 256 characters.
        """
        return self._targets.users([user_id])

    def to_client(self, client_id: str) -> Target:
        """One client, on any node. From any thread.

        Raises:
            ClientIdError: the argument is not a string; pass ``client.id``, not the client.
        """
        return self._targets.clients([client_id])

    def to_clients(self, client_ids: Iterable[str]) -> Target:
        """Several clients, on any node. From any thread.

        Raises:
            TypeError: a single string was given; use `to_client`.
            ClientIdError: an argument is not a string; pass ``client.id``, not the client.
        """
        return self._targets.clients(client_ids)

    def to_nodes(self) -> Nodes:
        """All nodes, whose ``on_node`` handlers hear it: ``broker.to_nodes().send("cancel", 7)``. From any thread."""
        return self._nodes
