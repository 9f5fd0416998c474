"""``memory://name``: a bus within one process, for brokers that share it, on one loop or several. Knows no network."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Collection, Sequence
from weakref import WeakValueDictionary

from velocity_ws.backplane.base import Lost, Receive

__all__ = ["MAX_PAYLOAD", "Bus", "MemoryBackplane", "bus_of"]

MAX_PAYLOAD = 8 * 1024 * 1024
"""Bytes."""
MAX_WAITING = 32 * 1024 * 1024
"""Bytes that may wait for a connection until its loop has a turn; beyond that it is cut off."""


class _BusConnection:
    """One connection, and what it has yet to receive. All but `deliver` is called with the lock of its bus held."""

    def __init__(self, lock: threading.Lock, receive: Receive, lost: Lost) -> None:
        self.receive: Receive | None = receive
        self._lock = lock
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._messages: list[tuple[str, bytes]] = []
        self._size = 0

    def put(self, topic: str, payload: bytes) -> None:
        if not self._messages:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                self._loop.call_soon_threadsafe(self.deliver)
        self._size += len(payload)
        if self._size <= MAX_WAITING:
            self._messages.append((topic, payload))

    def deliver(self) -> None:
        with self._lock:
            messages, self._messages = self._messages, []
            size, self._size = self._size, 0
        for topic, payload in messages:
            if self.receive is None:
                return
            self.receive(topic, payload)
        if size > MAX_WAITING and self.receive is not None:
            self.receive = None
            self._lost(ConnectionError("it fell behind, and was cut off"))


class Bus:
    """The connections that listen to each topic. From any thread.

    Attributes:
        lock: held while anything here is changed or published.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.listeners: dict[str, dict[_BusConnection, None]] = {}

    def publish(self, topic: str, payload: bytes) -> None:
        """Give a payload to all that listen; the lock is held."""
        for connection in self.listeners.get(topic, ()):
            connection.put(topic, payload)

    def unsubscribe(self, connection: _BusConnection, topics: Collection[str]) -> None:
        with self.lock:
            for topic in topics:
                listeners = self.listeners.get(topic, {})
                listeners.pop(connection, None)
                if not listeners:
                    self.listeners.pop(topic, None)


_buses: WeakValueDictionary[str, Bus] = WeakValueDictionary()
_lock = threading.Lock()


def bus_of(url: str) -> Bus:
    """The bus that all in this process share that have the name in a URL, as long as they keep it. From any thread."""
    with _lock:
        return _buses.setdefault(url.partition("://")[2], Bus())


class MemoryBackplane:
    """One connection to the bus of a name. On the broker's loop only."""

    def __init__(self, url: str) -> None:
        """
        Args:
            url: ``memory://`` and the name of the bus.
        """
        self.max_payload = MAX_PAYLOAD
        self._bus = bus_of(url)
        self._connection: _BusConnection | None = None
        self._topics: set[str] = set()

    async def connect(self, receive: Receive, lost: Lost) -> None:
        """See `Backplane.connect`."""
        self._connection = _BusConnection(self._bus.lock, receive, lost)

    async def subscribe(self, topics: Collection[str]) -> None:
        """See `Backplane.subscribe`."""
        connection = self._connected()
        self._topics.update(topics)
        with self._bus.lock:
            for topic in topics:
                self._bus.listeners.setdefault(topic, {})[connection] = None

    async def unsubscribe(self, topics: Collection[str]) -> None:
        """See `Backplane.unsubscribe`."""
        self._bus.unsubscribe(self._connected(), topics)
        self._topics.difference_update(topics)

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Backplane.publish`."""
        self._connected()
        with self._bus.lock:
            for topic, payload in messages:
                self._bus.publish(topic, bytes(payload))
        await asyncio.sleep(0)

    async def close(self) -> None:
        """See `Backplane.close`."""
        if self._connection is not None:
            self._connection.receive = None
            self._bus.unsubscribe(self._connection, self._topics)
            self._connection = None
        self._topics = set()

    def release(self) -> None:
        """See `Backplane.release`. There is nothing to give back."""

    def _connected(self) -> _BusConnection:
        if self._connection is None or self._connection.receive is None:
            raise ConnectionError("there is no connection")
        return self._connection
