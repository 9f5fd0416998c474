"""Outgoing: what an application sends to clients, on this node and the others. Knows kinds of rooms, no connection."""

from __future__ import annotations

from velocity_ws.cluster.cluster import Cluster
from velocity_ws.concurrency.portal import Portal
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.hooks.kinds import Kinds
from velocity_ws.messages.address import Address
from velocity_ws.messages.events import is_of_rooms, reserved
from velocity_ws.messages.names import validate_text
from velocity_ws.messages.outbound import PreparedMessage, add_room
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.session import Session

__all__ = ["Outgoing"]

NOBODY = Address("clients")


class Outgoing:
    """The messages of one broker. On the broker's loop only, but for `publish`."""

    def __init__(self, portal: Portal, hub: Hub[Session], kinds: Kinds, *, is_alone: bool) -> None:
        """
        Args:
            portal: the way to the broker's loop.
            hub: knows the clients of this node.
            kinds: the kinds of rooms.
            is_alone: whether there are never other nodes.
        """
        self._portal = portal
        self._hub = hub
        self._kinds = kinds
        self._is_alone = is_alone
        self._cluster: Cluster | None = None

    def begin(self, cluster: Cluster | None) -> None:
        """Send to the other nodes, where there are any."""
        self._cluster = cluster

    def end(self) -> None:
        """Send to no other node any more."""
        self._cluster = None

    async def publish(self, address: Address, message: PreparedMessage) -> int:
        """Send a message to the clients it is addressed to, on all nodes. From any loop, in a coroutine.

        Returns:
            For how many clients of this node it was queued.

        Raises:
            InvalidNameError: a name cannot travel between processes, or it is an event that only this package sends.
            BackplaneUnavailable: it could not be sent to the other nodes.
        """
        return await self._portal.run(self._publish, address, message)

    async def _publish(self, address: Address, message: PreparedMessage) -> int:
        if self._cluster is not None:
            for name in address.names:
                validate_text(name)
        if self._kinds.all:
            self._look_at(address, message)
        queued = self._hub.deliver(address, message)
        if self._cluster is not None:
            await self._cluster.publish(address, message)
        elif not self._is_alone and address != NOBODY:
            raise BackplaneUnavailable("the broker is not started")
        return queued

    def _look_at(self, address: Address, message: PreparedMessage) -> None:
        """Let what is sent to one room of a kind carry the room, and refuse events that only this package sends."""
        if is_of_rooms(message) and self._kinds.tells_of_rooms:
            raise reserved()
        if address.kind == "rooms" and len(address.names) == 1:
            (room,) = address.names
            if self.is_of_kind(room):
                add_room(message, room)

    def is_of_kind(self, room: str) -> bool:
        """Whether a room is of a kind, so that what is sent to it alone carries its name."""
        return bool(self._kinds.all) and self._kinds.of(room) is not None
