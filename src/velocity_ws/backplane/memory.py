"""``memory://name``: a bus within one process, for several brokers in it, each on a loop of its own or not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Sequence

from velocity_ws.backplane.base import Lost, Receive

__all__ = ["MemoryBackplane"]


class _Bus:
    """Who listens to what. Used from any thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.listeners: dict[str, list[MemoryBackplane]] = {}


_buses: dict[str, _Bus] = {}


class MemoryBackplane:
    """One connection to the bus of a name."""

    def __init__(self, url: str) -> None:
        """
        Args:
            url: ``memory://`` and the name of the bus.
        """
        self.max_payload = 64 * 1024 * 1024
        self._bus = _buses.setdefault(url.partition("://")[2], _Bus())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._receive: Receive | None = None
        self._topics: set[str] = set()

    async def connect(self, receive: Receive, lost: Lost) -> None:  # noqa: ARG002 - it ends with the process
        """See `Backplane.connect`."""
        self._loop = asyncio.get_running_loop()
        self._receive = receive

    async def subscribe(self, topics: Collection[str]) -> None:
        """See `Backplane.subscribe`."""
        self._check()
        with self._bus.lock:
            for topic in topics:
                if topic not in self._topics:
                    self._topics.add(topic)
                    self._bus.listeners.setdefault(topic, []).append(self)

    async def unsubscribe(self, topics: Collection[str]) -> None:
        """See `Backplane.unsubscribe`."""
        self._check()
        self._leave(topics)

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """See `Backplane.publish`."""
        self._check()
        with self._bus.lock:
            for topic, payload in messages:
                for listener in self._bus.listeners.get(topic, ()):
                    listener._put(topic, bytes(payload))
        await asyncio.sleep(0)

    async def close(self) -> None:
        """See `Backplane.close`."""
        self._receive = None
        self._leave(list(self._topics))

    def release(self) -> None:
        """See `Backplane.release`. There is nothing."""

    def _leave(self, topics: Collection[str]) -> None:
        with self._bus.lock:
            for topic in topics:
                if topic in self._topics:
                    self._topics.remove(topic)
                    self._bus.listeners[topic].remove(self)
                    if not self._bus.listeners[topic]:
                        del self._bus.listeners[topic]

    def _put(self, topic: str, payload: bytes) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take, self._receive, topic, payload)

    def _take(self, receive: Receive | None, topic: str, payload: bytes) -> None:
        if receive is not None and receive is self._receive:
            receive(topic, payload)

    def _check(self) -> None:
        if self._receive is None:
            raise ConnectionError("there is no connection")
