"""How a suite gets at the backplane it tests, and at its engine. Knows the contract and no engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager

from velocity_ws.backplane.base import Backplane
from velocity_ws.testing.listener import DEADLINE, END, Listener, listening

__all__ = ["EngineOfContract"]

CLOSE_TIMEOUT = 1.5
"""Seconds; the contract says one, and machines that run tests are busy."""


class EngineOfContract:
    """What a subclass of `BackplaneContract` says of its engine."""

    async def backplane(self) -> Backplane:
        """A backplane that is not connected; all that a test makes are on the same engine."""
        raise NotImplementedError

    async def kill(self) -> None:
        """End the engine as if its machine had lost power: nothing listens where it was."""
        _skip("nothing here kills the engine")

    async def freeze(self) -> None:
        """Let the engine stand still with its connections open, until `thaw`."""
        _skip("nothing here stops the engine")

    async def thaw(self) -> None:
        """Let it go on."""

    async def listening(self, *topics: str) -> AbstractAsyncContextManager[Listener]:
        """Another connection, subscribed to these topics, as a context manager."""
        return listening(await self.backplane(), topics)

    async def open_again(self, listener: Listener, topics: Collection[str]) -> None:
        """Close it, open it, and see that it works."""
        await self.close(listener)
        listener.received.clear()
        async with asyncio.timeout(DEADLINE):
            await listener.connect()
            await listener.backplane.subscribe(topics)
            for topic in topics:
                await listener.backplane.publish([(topic, END)])
                await listener.up_to(topic, END)

    async def close(self, listener: Listener) -> None:
        """Close it, and see that it does not take long."""
        begin = time.monotonic()
        await listener.backplane.close()
        assert time.monotonic() - begin < CLOSE_TIMEOUT


def _skip(why: str) -> None:
    import pytest  # noqa: PLC0415 - whoever only imports this does not need it

    pytest.skip(why)
