"""The broker for plain threads: its awaited methods, blocking until done. Knows only the broker's public methods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from velocity_ws.target import SyncTarget, Target

if TYPE_CHECKING:
    from velocity_ws.broker import Broker

__all__ = ["SyncBroker"]


class SyncBroker:
    """`Broker` for plain threads and ``def`` routes: the same methods, blocking.

    Raises, from each: WouldDeadlockError on the broker's own event loop.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def broadcast(self, event: str, data: Any = None) -> int:
        """Blocking `Broker.broadcast`."""
        return self.to_all().send(event, data)

    def broadcast_bytes(self, data: bytes) -> int:
        """Blocking `Broker.broadcast_bytes`."""
        return self.to_all().send_bytes(data)

    def to_all(self) -> SyncTarget:
        """Everyone."""
        return self._target(self._broker.to_all())

    def to_room(self, room: str) -> SyncTarget:
        """The members of a room."""
        return self._target(self._broker.to_room(room))

    def to_rooms(self, rooms: Iterable[str]) -> SyncTarget:
        """The members of several rooms."""
        return self._target(self._broker.to_rooms(rooms))

    def to_client(self, client_id: str) -> SyncTarget:
        """One client."""
        return self._target(self._broker.to_client(client_id))

    def to_clients(self, client_ids: Iterable[str]) -> SyncTarget:
        """Several clients."""
        return self._target(self._broker.to_clients(client_ids))

    def join_room(self, client_id: str, room: str) -> None:
        """Blocking `Broker.join_room`."""
        self._broker.home.block(self._broker.join_room, client_id, room)

    def leave_room(self, client_id: str, room: str) -> None:
        """Blocking `Broker.leave_room`."""
        self._broker.home.block(self._broker.leave_room, client_id, room)

    def stop(self) -> None:
        """Blocking `Broker.stop`."""
        self._broker.home.block(self._broker.stop)

    def _target(self, target: Target) -> SyncTarget:
        return SyncTarget(target, self._broker.home)
