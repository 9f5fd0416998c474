"""Engine: how a suite makes the backplanes it tests, and ends their engine. Knows the contract and no engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager

from velocity_ws.backplane.base import Backplane
from velocity_ws.testing.listener import DEADLINE, END, Listener, listening

__all__ = ["EngineOfContract"]

CLOSE_TIMEOUT = 1.5
"""Seconds that closing may take; the contract says one, but machines that run tests are busy."""


class EngineOfContract:
    """The methods by which a subclass of `BackplaneContract` gives access to its engine."""

    async def backplane(self) -> Backplane:
        """Make a backplane that is not connected. All backplanes of one test must use the same engine."""
        raise NotImplementedError

    async def kill(self) -> None:
        """End the engine as if its machine had lost power, so that nothing listens at its address."""
        _skip("nothing here kills the engine")

    async def freeze(self) -> None:
        """Stop the engine with its connections open, until `thaw`."""
        _skip("nothing here stops the engine")

    async def thaw(self) -> None:
        """Let a frozen engine run again."""

    async def listening(self, *topics: str) -> AbstractAsyncContextManager[Listener]:
        """Return a context manager that connects another backplane and subscribes it to these topics."""
        return listening(await self.backplane(), topics)

    async def open_again(self, listener: Listener, topics: Collection[str]) -> None:
        """Close a listener's connection, open it again, and check that each of these topics is carried."""
        await self.close(listener)
        listener.received.clear()
        async with asyncio.timeout(DEADLINE):
            await listener.connect()
            await listener.backplane.subscribe(topics)
            for topic in topics:
                await listener.backplane.publish([(topic, END)])
                await listener.up_to(topic, END)

    async def close(self, listener: Listener) -> None:
        """Close a listener's connection, and check that it does not take long."""
        begin = time.monotonic()
        await listener.backplane.close()
        assert time.monotonic() - begin < CLOSE_TIMEOUT


def _skip(why: str) -> None:
    import pytest  # noqa: PLC0415 - a program that only imports this module does not need it

    pytest.skip(why)
