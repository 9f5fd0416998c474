"""History engine: how a suite makes the stores it tests, and what it does to their engine. Knows no engine."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from velocity_ws.backplane.base import Backplane
from velocity_ws.history.base import HistoryStore
from velocity_ws.history.entries import Entry
from velocity_ws.history.items import Append, Appended, Limits, Log, Query, Range, Top, granted
from velocity_ws.history.positions import Position
from velocity_ws.history.recovery import Reason, judge, view_of
from velocity_ws.testing.listener import DEADLINE, Listener, listening

__all__ = ["LONG", "EngineOfHistory", "Keeper"]

LONG = 3600_000
"""Milliseconds that no test takes."""
_numbers = itertools.count(1)


class Keeper:
    """A store that is connected, asked in the ways in which tests ask.

    Attributes:
        store: the store.
        losses: what it has called ``lost`` with.
    """

    def __init__(self, store: HistoryStore) -> None:
        """
        Args:
            store: not connected.
        """
        self.store = store
        self.losses: list[Exception] = []

    async def connect(self) -> None:
        """Connect it, so that its losses are kept.

        Raises:
            OSError: there is no engine.
        """
        await self.store.connect(self.losses.append)

    async def append(self, log: Log, *envelopes: bytes) -> list[Entry]:
        """Append envelopes to one log, in one call.

        Raises:
            Refused: the engine did not take one.
        """
        results = await self.store.append([Append(log, envelope) for envelope in envelopes])
        stamps = [granted(result).stamp for result in results]
        return [Entry(stamp, envelope) for stamp, envelope in zip(stamps, envelopes, strict=True)]

    async def append_once(self, log: Log, envelope: bytes, key: str, digest: bytes) -> Appended:
        """Append an envelope with an idempotency key.

        Raises:
            Refused: the engine did not take it.
        """
        (result,) = await self.store.append([Append(log, envelope, key, digest)])
        return granted(result)

    async def top(self, log: Log) -> Top:
        """The end of a log.

        Raises:
            Refused: the engine cannot say.
        """
        (top,) = await self.store.tops([log])
        return granted(top)

    async def read(self, log: Log, after: int = 0, limit: int = 1000) -> Range:
        """What a log has after an offset.

        Raises:
            Refused: the engine cannot say.
        """
        (found,) = await self.store.read([Query(log, after, limit)])
        return granted(found)

    async def recover(
        self, log: Log, position: Position, *, removed: int = 0, limit: int = 1000
    ) -> Reason | list[bytes]:
        """What a client gets that comes back to a position: the envelopes that it missed, or why it does not."""
        found = await self.read(log, position.offset)
        view = view_of(position, found.top, found.entries)
        reason = judge(position, found.top, view, removed=removed, limit=limit)
        return [entry.envelope for entry in found.entries] if reason is None else reason


class EngineOfHistory:
    """The methods by which a subclass of `HistoryContract` gives access to its engine."""

    async def store(self) -> HistoryStore:
        """Make a store that is not connected. All stores and backplanes of one test must use the same engine."""
        raise NotImplementedError

    async def backplane(self) -> Backplane:
        """Make a backplane that is not connected, on the engine of the stores."""
        raise NotImplementedError

    async def kill(self) -> None:
        """End the engine as if its machine had lost power, so that nothing listens at its address."""
        _skip("nothing here kills the engine")

    async def restart_empty(self) -> None:
        """End the engine, and start it again at the same address with nothing in it."""
        _skip("nothing here starts the engine again")

    async def freeze(self) -> None:
        """Stop the engine with its connections open, until `thaw`."""
        _skip("nothing here stops the engine")

    async def thaw(self) -> None:
        """Let a frozen engine run again."""

    async def save(self) -> None:
        """Keep what the engine has now, for `rewind`. Harmless for its connections."""
        _skip("nothing here makes the engine go back")

    async def rewind(self) -> None:
        """End the engine, and start it again at the same address with what it had at `save`."""

    async def lose_meta(self, log: Log) -> None:  # noqa: ARG002
        """Let the engine lose what it knows of a log beside its entries, as when it evicts a key."""
        _skip("here nothing is lost alone")

    async def lose_entries(self, log: Log) -> None:  # noqa: ARG002
        """Let the engine lose the entries of a log, and nothing else of it."""
        _skip("here nothing is lost alone")

    async def lose_removals(self, log: Log) -> None:  # noqa: ARG002
        """Let the engine lose the removals of a log, and nothing else of it."""
        _skip("here nothing is lost alone")

    async def fill(self) -> None:
        """Leave the engine no memory for anything more."""
        _skip("nothing here fills the engine")

    async def pass_time(self, milliseconds: int) -> None:
        """Let the time of the engine's clock pass."""
        await asyncio.sleep(milliseconds / 1000)

    def log(self, *, size: int = 1000, ttl: int = LONG, max_bytes: int = 1024 * 1024) -> Log:
        """A log that no other test has."""
        return Log(f"history.room.number={next(_numbers)}", Limits(size, ttl, max_bytes))

    @asynccontextmanager
    async def keepers(self, count: int) -> AsyncIterator[Sequence[Keeper]]:
        """Connect a number of stores; close and release them at the end of the block."""
        keepers = [Keeper(await self.store()) for _ in range(count)]
        try:
            async with asyncio.timeout(DEADLINE):
                for keeper in keepers:
                    await keeper.connect()
            yield keepers
        finally:
            for keeper in keepers:
                await keeper.store.close()
                keeper.store.release()

    @asynccontextmanager
    async def keeper(self) -> AsyncIterator[Keeper]:
        """Connect one store, until the end of the block."""
        async with self.keepers(1) as (keeper,):
            yield keeper

    async def listening(self, *logs: Log) -> AbstractAsyncContextManager[Listener]:
        """Return a context manager that connects a backplane and subscribes it to the topics of these logs."""
        return listening(await self.backplane(), [log.topic for log in logs])


async def until(condition: Callable[[], object]) -> None:
    """Wait for what gives no signal.

    Raises:
        TimeoutError: it is not so within 20 seconds.
    """
    async with asyncio.timeout(DEADLINE):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


def _skip(why: str) -> None:
    import pytest  # noqa: PLC0415 - a program that only imports this module does not need it

    pytest.skip(why)
