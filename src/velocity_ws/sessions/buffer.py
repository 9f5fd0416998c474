"""Buffer: the messages of one client that wait, and whether it should be read meanwhile. Handles none of them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from velocity_ws.messages.inbound import head_of

__all__ = ["Buffer", "Source", "size_of"]


class Source(Protocol):
    """What reads the messages of one client."""

    def resume(self) -> None:
        """Go on reading: more messages can be taken."""


class Buffer:
    """The half of an inbox that keeps messages. On the broker's loop only.

    Attributes:
        is_full: whether so much waits that the transport should stop reading until `source` hears, or `room` returns.
        source: hears when there is room again; ``None`` where nothing reads that would have to.
    """

    __slots__ = ("_bound", "_bytes", "_queue", "_room", "is_full", "source")

    def __init__(self, bound: int) -> None:
        """
        Args:
            bound: bytes that may wait; above that it is full.
        """
        self.is_full = False
        self.source: Source | None = None
        self._bound = bound
        self._bytes = 0
        self._queue: deque[str | bytes] | None = None  # as most clients never need one
        self._room: asyncio.Event | None = None

    async def room(self) -> None:
        """Wait until there is room for more messages."""
        self._room = self._room or asyncio.Event()
        while self.is_full:
            self._room.clear()
            await self._room.wait()

    def has_waiting(self, event: str) -> bool:
        """Whether a message of that event waits. It reads all that wait, as far as their names."""
        heads = [head_of(each) for each in self._queue or () if isinstance(each, str)]
        return any(head is not None and head.event == event for head in heads)

    def _set_bound(self, bound: int) -> None:
        self._bound = bound
        self._make_room()

    def _put(self, payload: str | bytes, size: int) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.append(payload)
        self._waits(size)

    def _take(self) -> tuple[str | bytes | None, int]:
        """What waits longest, and its size in bytes; ``None`` where nothing does."""
        if not self._queue:
            return None, 0
        payload = self._queue.popleft()
        size = size_of(payload)
        self._waits_no_more(size)
        return payload, size

    def _discard(self) -> None:
        """Forget all that waits."""
        if self._queue:
            self._queue.clear()
        self._bytes = 0
        self._make_room()

    def _waits(self, size: int) -> None:
        """Count a message that waits, here or elsewhere."""
        self._bytes += size or 1  # so that empty messages are bounded too
        self.is_full = self.is_full or self._bytes > self._bound

    def _waits_no_more(self, size: int) -> None:
        self._bytes -= size or 1
        self._make_room()

    def _make_room(self) -> None:
        if self.is_full and self._bytes <= self._bound:
            self.is_full = False
            if self._room is not None:
                self._room.set()
            if self.source is not None:
                self.source.resume()


def size_of(payload: str | bytes) -> int:
    """The bytes of a message; of a text, as UTF-8."""
    if isinstance(payload, bytes) or payload.isascii():
        return len(payload)
    return len(payload.encode())
