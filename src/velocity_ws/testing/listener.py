"""A connected backplane and what came to it. Knows the contract and no engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from velocity_ws.backplane.base import Backplane

__all__ = ["DEADLINE", "END", "Listener", "listening", "refused"]

DEADLINE = 20.0
"""Seconds that anything a test waits for may take."""
END = b"that was the last one"


class Listener:
    """Records what a backplane calls.

    Attributes:
        backplane: the one that is recorded.
        received: topics and payloads, in the order in which they came.
        losses: what ``lost`` was called with.
    """

    def __init__(self, backplane: Backplane) -> None:
        """
        Args:
            backplane: not connected.
        """
        self.backplane = backplane
        self.received: list[tuple[str, bytes]] = []
        self.losses: list[Exception] = []
        self._something = asyncio.Event()

    async def connect(self) -> None:
        """Open a connection.

        Raises:
            OSError: there is no engine.
        """
        await self.backplane.connect(self._receive, self._lost)

    async def messages(self, count: int) -> list[tuple[str, bytes]]:
        """What came, once it is so many messages.

        Raises:
            TimeoutError: it was fewer within the deadline.
        """
        async with asyncio.timeout(DEADLINE):
            while len(self.received) < count:
                await self._wait()
        return self.received

    async def up_to(self, topic: str, payload: bytes) -> list[tuple[str, bytes]]:
        """What came ahead of the first of these messages, once that has come.

        Raises:
            TimeoutError: it did not within the deadline.
        """
        async with asyncio.timeout(DEADLINE):
            while (topic, payload) not in self.received:
                await self._wait()
        return self.received[: self.received.index((topic, payload))]

    async def loss(self) -> Exception:
        """Why the connection ended, once it has.

        Raises:
            TimeoutError: it did not within the deadline.
        """
        async with asyncio.timeout(DEADLINE):
            while not self.losses:
                await self._wait()
        return self.losses[0]

    async def _wait(self) -> None:
        self._something.clear()
        await self._something.wait()

    def _receive(self, topic: str, payload: bytes) -> None:
        assert type(topic) is str
        assert type(payload) is bytes
        self.received.append((topic, payload))
        self._something.set()

    def _lost(self, error: Exception) -> None:
        self.losses.append(error)
        self._something.set()


@asynccontextmanager
async def listening(backplane: Backplane, topics: Collection[str] = ()) -> AsyncIterator[Listener]:
    """A connection that is subscribed to these topics, for as long as the block.

    Args:
        backplane: not connected.
        topics: what it listens to.
    """
    listener = Listener(backplane)
    try:
        async with asyncio.timeout(DEADLINE):
            await listener.connect()
            if topics:
                await backplane.subscribe(topics)
        yield listener
    finally:
        await backplane.close()
        backplane.release()


async def refused(call: Coroutine[Any, Any, object]) -> OSError:
    """The `OSError` that a call raises, within the deadline.

    Args:
        call: one that cannot be done.
    """
    task = asyncio.create_task(call)
    await asyncio.wait([task], timeout=DEADLINE)
    if not task.done():
        task.cancel()
        raise AssertionError("it does not end, and should have raised an OSError")
    error = task.exception()
    assert isinstance(error, OSError), f"it should have raised an OSError: {error!r}"
    return error
