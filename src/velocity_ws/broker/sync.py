"""Sync: blocking twins of what is awaited, for plain threads: of `Broker`, `Emitter`, targets and streams."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from velocity_ws.broker.members import ClusterStats, Connections, Members
from velocity_ws.broker.server_api import ServerAPI
from velocity_ws.broker.stream_handles import Stream, StreamWriter
from velocity_ws.broker.streams_api import Source, StreamsAPI
from velocity_ws.broker.target import Nodes, Target
from velocity_ws.concurrency.portal import Portal
from velocity_ws.history.values import Entry, Joined, Sent
from velocity_ws.streams.values import StreamInfo, StreamState

__all__ = [
    "SyncBroker", "SyncNodes", "SyncServerAPI", "SyncStream", "SyncStreamWriter", "SyncStreams", "SyncTarget",
]  # fmt: skip


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


class SyncStream:
    """`Stream` for plain threads: the same methods, blocking."""

    def __init__(self, stream: Stream, portal: Callable[[], Portal]) -> None:
        self._stream = stream
        self._portal = portal
        self.id = stream.id
        self.room = stream.room
        self.is_new = stream.is_new

    def read(self) -> StreamState:
        """Blocking `Stream.read`."""
        return self._portal().block(self._stream.read)

    def cancel(self) -> bool:
        """Blocking `Stream.cancel`."""
        return self._portal().block(self._stream.cancel)

    def wait(self) -> str:
        """Blocking `Stream.wait`."""
        return self._portal().block(self._stream.wait)


class SyncStreamWriter:
    """`StreamWriter` for plain threads: the same method, blocking."""

    def __init__(self, writer: StreamWriter, portal: Callable[[], Portal]) -> None:
        self._writer = writer
        self._portal = portal
        self.id = writer.id
        self.room = writer.room

    def write(self, said: Any) -> None:
        """Blocking `StreamWriter.write`."""
        self._portal().block(self._writer.write, said)


class SyncStreams:
    """`StreamsAPI` for plain threads: the same methods, blocking."""

    def __init__(self, api: StreamsAPI, portal: Callable[[], Portal]) -> None:
        self._api = api
        self._portal = portal

    def start(self, stream_id: str, *, room: str, source: Source) -> SyncStream:
        """Blocking `StreamsAPI.start`. The source runs on the event loop of the streams."""
        return SyncStream(self._portal().block(self._api.start, stream_id, room=room, source=source), self._portal)

    @contextmanager
    def open(self, stream_id: str, *, room: str) -> Iterator[SyncStreamWriter]:
        """Blocking `StreamsAPI.open`: ``with broker.sync.streams.open(…) as stream: stream.write(…)``."""
        opened = self._api.open(stream_id, room=room)
        portal = self._portal()
        writer = portal.block(opened.__aenter__)
        try:
            yield SyncStreamWriter(writer, self._portal)
        except BaseException as error:
            portal.block(opened.__aexit__, type(error), error, error.__traceback__)
            raise
        portal.block(opened.__aexit__, None, None, None)

    def follow(self, stream_id: str, start: int = 0) -> Iterator[Any]:
        """Blocking `StreamsAPI.follow`: ``for part in broker.sync.streams.follow("answer-42")``."""
        reader = self._api.follow(stream_id, start)
        while True:
            try:
                part = self._portal().block(reader.__anext__)
            except StopAsyncIteration:
                return
            yield part

    def cancel(self, stream_id: str) -> bool:
        """Blocking `StreamsAPI.cancel`."""
        return self._portal().block(self._api.cancel, stream_id)

    def read(self, stream_id: str) -> StreamState:
        """Blocking `StreamsAPI.read`."""
        return self._portal().block(self._api.read, stream_id)

    def wait(self, stream_id: str) -> str:
        """Blocking `StreamsAPI.wait`."""
        return self._portal().block(self._api.wait, stream_id)

    def list(self, room: str) -> Sequence[StreamInfo]:
        """Blocking `StreamsAPI.list`."""
        return self._portal().block(self._api.list, room)


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

    @property
    def streams(self) -> SyncStreams:
        """Blocking form of ``streams``."""
        return SyncStreams(self._api.streams, self._api.blocking_portal)

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
