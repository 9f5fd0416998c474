"""Sync: blocking twins of `Broker`, `Emitter`, `Target` and `Nodes`, for plain threads. Knows only what these await."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from velocity_ws.broker.members import ClusterStats, Connections, Members
from velocity_ws.broker.server_api import ServerAPI
from velocity_ws.broker.target import Nodes, Target
from velocity_ws.concurrency.portal import Portal
from velocity_ws.history.values import Entry, Joined, Sent

__all__ = ["SyncBroker", "SyncNodes", "SyncServerAPI", "SyncTarget"]


class SyncTarget:
    """`Target` for plain threads: the same methods, blocking."""

    def __init__(self, target: Target, portal: Callable[[], Portal]) -> None:
        self._target = target
        self._portal = portal

    def except_(self, *client_ids: str) -> SyncTarget:
        """The same without these clients."""
        return SyncTarget(self._target.except_(*client_ids), self._portal)

    def send(
        self, event: str, data: Any = None, *, volatile: bool = False, key: str | None = None, dedupe: str | None = None
    ) -> Sent:
        """Blocking `Target.send`."""
        return self._portal().block(self._target.send, event, data, volatile=volatile, key=key, dedupe=dedupe)

    def send_bytes(self, data: bytes, *, volatile: bool = False, key: str | None = None) -> Sent:
        """Blocking `Target.send_bytes`."""
        return self._portal().block(self._target.send_bytes, data, volatile=volatile, key=key)


class SyncNodes:
    """`Nodes` for plain threads: the same method, blocking."""

    def __init__(self, nodes: Nodes, portal: Callable[[], Portal]) -> None:
        self._nodes = nodes
        self._portal = portal

    def send(self, event: str, data: Any = None) -> None:
        """Blocking `Nodes.send`."""
        self._portal().block(self._nodes.send, event, data)


class SyncServerAPI:
    """`ServerAPI` for plain threads and ``def`` routes: the same methods, blocking.

    Raises, from each: WouldDeadlockError on its own event loop.
    """

    def __init__(self, api: ServerAPI) -> None:
        self._api = api

    def broadcast(self, event: str, data: Any = None, *, volatile: bool = False, key: str | None = None) -> Sent:
        """Blocking `ServerAPI.broadcast`."""
        return self.to_all().send(event, data, volatile=volatile, key=key)

    def broadcast_bytes(self, data: bytes, *, volatile: bool = False, key: str | None = None) -> Sent:
        """Blocking `ServerAPI.broadcast_bytes`."""
        return self.to_all().send_bytes(data, volatile=volatile, key=key)

    def to_all(self) -> SyncTarget:
        """Blocking form of `ServerAPI.to_all`."""
        return self._target(self._api.to_all())

    def to_room(self, room: str) -> SyncTarget:
        """Blocking form of `ServerAPI.to_room`."""
        return self._target(self._api.to_room(room))

    def to_rooms(self, rooms: Iterable[str]) -> SyncTarget:
        """Blocking form of `ServerAPI.to_rooms`."""
        return self._target(self._api.to_rooms(rooms))

    def to_user(self, user_id: str | int) -> SyncTarget:
        """Blocking form of `ServerAPI.to_user`."""
        return self._target(self._api.to_user(user_id))

    def to_client(self, client_id: str) -> SyncTarget:
        """Blocking form of `ServerAPI.to_client`."""
        return self._target(self._api.to_client(client_id))

    def to_clients(self, client_ids: Iterable[str]) -> SyncTarget:
        """Blocking form of `ServerAPI.to_clients`."""
        return self._target(self._api.to_clients(client_ids))

    def to_nodes(self) -> SyncNodes:
        """Blocking form of `ServerAPI.to_nodes`."""
        return SyncNodes(self._api.to_nodes(), self._api.blocking_portal)

    def join_room(self, client_id: str, room: str, *, since: str | int | None = None) -> Joined:
        """Blocking `ServerAPI.join_room`."""
        return self._api.blocking_portal().block(self._api.join_room, client_id, room, since=since)

    def leave_room(self, client_id: str, room: str) -> None:
        """Blocking `ServerAPI.leave_room`."""
        self._api.blocking_portal().block(self._api.leave_room, client_id, room)

    def disconnect(self, client_id: str, code: int = 1000, reason: str = "") -> bool:
        """Blocking `ServerAPI.disconnect`."""
        return self._api.blocking_portal().block(self._api.disconnect, client_id, code, reason)

    def disconnect_user(self, user_id: str | int, code: int = 1000, reason: str = "") -> int:
        """Blocking `ServerAPI.disconnect_user`."""
        return self._api.blocking_portal().block(self._api.disconnect_user, user_id, code, reason)

    def remove_user(self, user_id: str | int, room: str) -> int:
        """Blocking `ServerAPI.remove_user`."""
        return self._api.blocking_portal().block(self._api.remove_user, user_id, room)

    def is_online(self, user_id: str | int) -> bool:
        """Blocking `ServerAPI.is_online`."""
        return self._api.blocking_portal().block(self._api.is_online, user_id)

    def connections(self, user_id: str | int) -> Connections:
        """Blocking `ServerAPI.connections`."""
        return self._api.blocking_portal().block(self._api.connections, user_id)

    def reauthorize(self, room: str | None = None, user_id: str | int | None = None) -> None:
        """Blocking `ServerAPI.reauthorize`."""
        self._api.blocking_portal().block(self._api.reauthorize, room, user_id)

    def members(self, room: str) -> Members:
        """Blocking `ServerAPI.members`."""
        return self._api.blocking_portal().block(self._api.members, room)

    def count(self, room: str) -> int:
        """Blocking `ServerAPI.count`."""
        return self._api.blocking_portal().block(self._api.count, room)

    def history(self, room: str, since: str | None = None, limit: int = 100, reverse: bool = False) -> list[Entry]:
        """Blocking `ServerAPI.history`."""
        return self._api.blocking_portal().block(self._api.history, room, since, limit, reverse)

    def clear_history(self, room: str) -> None:
        """Blocking `ServerAPI.clear_history`."""
        self._api.blocking_portal().block(self._api.clear_history, room)

    def cluster_stats(self) -> ClusterStats:
        """Blocking `ServerAPI.cluster_stats`."""
        return self._api.blocking_portal().block(self._api.cluster_stats)

    def _target(self, target: Target) -> SyncTarget:
        return SyncTarget(target, self._api.blocking_portal)


class SyncBroker(SyncServerAPI):
    """`Broker` for plain threads and ``def`` routes: the same methods, blocking.

    Raises, from each: WouldDeadlockError on the broker's own event loop.
    """

    def __init__(self, api: ServerAPI, stop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        super().__init__(api)
        self._stop = stop

    def stop(self) -> None:
        """Blocking `Broker.stop`."""
        self._api.portal.block(self._stop)
