"""Listener: records what a backplane receives, for tests. Knows the contract and no engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from velocity_ws.backplane.base import Backplane

__all__ = ["DEADLINE", "END", "Listener", "listening", "refused"]

DEADLINE = 20.0
"""Seconds after which a test that waits fails."""
END = b"that was the last one"


class Listener:
    """A backplane, and a record of the messages and losses that it reports.

    Attributes:
        backplane: the backplane that is recorded.
        received: the topic and payload of each message, in the order in which they came.
        losses: the exceptions that the backplane has called ``lost`` with.
    """

    def __init__(self, backplane: Backplane) -> None:
        """
        Args:
            backplane: a backplane that is not connected.
        """
        self.backplane = backplane
        self.received: list[tuple[str, bytes]] = []
        self.losses: list[Exception] = []
        self._something = asyncio.Event()

    async def connect(self) -> None:
        """Connect the backplane, so that what it reports is recorded.

        Raises:
            OSError: there is no engine.
        """
        await self.backplane.connect(self._receive, self._lost)

    async def messages(self, count: int) -> list[tuple[str, bytes]]:
        """Wait until ``count`` messages have come, and return all that have.

        Raises:
            TimeoutError: fewer came within 20 seconds.
        """
        async with asyncio.timeout(DEADLINE):
            while len(self.received) < count:
                await self._wait()
        return self.received

    async def up_to(self, topic: str, payload: bytes) -> list[tuple[str, bytes]]:
        """Wait until this message has come, and return all that came before it.

        Raises:
            TimeoutError: it did not come within 20 seconds.
        """
        async with asyncio.timeout(DEADLINE):
            while (topic, payload) not in self.received:
                await self._wait()
        return self.received[: self.received.index((topic, payload))]

    async def loss(self) -> Exception:
        """Wait until the connection has ended by itself, and return the reason.

        Raises:
            TimeoutError: it did not end within 20 seconds.
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
    """Connect a backplane and subscribe it to topics; close and release it at the end of the block.

    Args:
        backplane: a backplane that is not connected.
        topics: the topics that it subscribes to.
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
    """Await a call that must fail, and return the `OSError` that it raises.

    Raises:
        AssertionError: it takes longer than 20 seconds, returns, or raises another exception.
    """
    task = asyncio.create_task(call)
    await asyncio.wait([task], timeout=DEADLINE)
    if not task.done():
        task.cancel()
        raise AssertionError("it does not end, and should have raised an OSError")
    error = task.exception()
    assert isinstance(error, OSError), f"it should have raised an OSError: {error!r}"
    return error
