"""Outgoing: what an application sends to clients, on this node and the others. Knows kinds of rooms, no connection."""

from __future__ import annotations

from velocity_ws.broker.room_logs import RoomLogs, find_log, refuse_dedupe
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.concurrency.portal import Portal
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history.appending import Appending
from velocity_ws.history.items import Log
from velocity_ws.history.values import Sent
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

    def __init__(self, portal: Portal, hub: Hub[Session], kinds: Kinds, logs: RoomLogs, *, is_alone: bool) -> None:
        """
        Args:
            portal: the way to the broker's loop.
            hub: knows the clients of this node.
            kinds: the kinds of rooms.
            logs: knows which rooms have a history.
            is_alone: whether there are never other nodes.
        """
        self._portal = portal
        self._hub = hub
        self._kinds = kinds
        self._logs = logs
        self._is_alone = is_alone
        self._cluster: Cluster | None = None
        self._appending: Appending | None = None

    def begin(self, cluster: Cluster | None, appending: Appending | None) -> None:
        """Send to the other nodes, and to the logs of rooms, where there are such."""
        self._cluster = cluster
        self._appending = appending

    def end(self) -> None:
        """Send to no other node any more, and to no log."""
        self._cluster = self._appending = None

    async def publish(self, address: Address, message: PreparedMessage, dedupe: str | None = None) -> Sent:
        """Send a message to the clients it is addressed to, on all nodes. From any loop, in a coroutine.

        Args:
            address: who.
            message: the message.
            dedupe: what makes it the same message when it is sent again; only to one room with history.

        Returns:
            For how many clients of this node it was queued, and where it stands in the room's log.

        Raises:
            InvalidNameError: a name cannot travel between processes, or it is an event that only this package sends.
            HistoryError: a room's history does not allow it.
            BackplaneUnavailable: it could not be sent to the other nodes; or, to a room with history, to nobody.
        """
        return await self._portal.run(self._publish, address, message, dedupe)

    async def _publish(self, address: Address, message: PreparedMessage, dedupe: str | None) -> Sent:
        if self._cluster is not None:
            for name in address.names:
                validate_text(name)
        if self._kinds.all:
            if is_of_rooms(message) and self._kinds.tells_of_rooms:
                raise reserved()
            if address.kind == "rooms" and (log := self._look_at(address, message)) is not None:
                return await self._append(log, address, message, dedupe)
        refuse_dedupe(dedupe)
        queued = self._hub.deliver(address, message)
        if self._cluster is not None:
            await self._cluster.publish(address, message)
        elif not self._is_alone and address != NOBODY:
            raise BackplaneUnavailable("the broker is not started")
        return Sent(queued)

    def _look_at(self, address: Address, message: PreparedMessage) -> Log | None:
        """Let what is sent to one room of a kind carry the room; the log of the room, where it goes there."""
        log = find_log(self._logs, address, message)
        if log is None and len(address.names) == 1:
            (room,) = address.names
            if self.is_of_kind(room):
                add_room(message, room)
        return log

    async def _append(self, log: Log, address: Address, message: PreparedMessage, dedupe: str | None) -> Sent:
        """Have the engine keep and publish a message; who is here gets it when it is heard where it stands."""
        if self._appending is None:
            raise BackplaneUnavailable("the broker is not started")
        (room,) = address.names
        done = await self._appending.append(room, log, message, address.excluded, dedupe)
        return Sent.of(self._hub.count(room, address.excluded), done.packed, duplicate=done.is_duplicate)

    def is_of_kind(self, room: str) -> bool:
        """Whether a room is of a kind, so that what is sent to it alone carries its name."""
        return bool(self._kinds.all) and self._kinds.of(room) is not None
