"""Stream engine: how a suite makes the stores of streams it tests, and what it asks of them. Knows no engine."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from velocity_ws.backplane.base import Backplane
from velocity_ws.history.items import granted
from velocity_ws.streams.base import StreamStore
from velocity_ws.streams.items import (
    Append,
    Began,
    Ending,
    Part,
    Query,
    Summary,
    Times,
    Written,
)
from velocity_ws.streams.pieces import join, unpack
from velocity_ws.testing.listener import DEADLINE, Listener, listening
from velocity_ws.testing.stream_pen import LONG, Pen

__all__ = ["PREFIX", "EngineOfStreams", "Scribe", "text_of"]

PREFIX = "contract"
"""Of the cluster whose stores are tested."""
_numbers = itertools.count(1)


class Scribe:
    """A store that is connected, asked in the ways in which tests ask.

    Attributes:
        store: the store.
        losses: what it has called ``lost`` with.
    """

    def __init__(self, store: StreamStore) -> None:
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

    async def begin(self, pen: Pen) -> Began:
        """Begin one stream.

        Raises:
            Refused: the engine did not do it.
        """
        (result,) = await self.store.begin([pen.begin()])
        return granted(result)

    async def append(self, *appends: Append) -> list[Written]:
        """Append pieces in one call.

        Raises:
            Refused: the engine did not take one.
        """
        return [granted(result) for result in await self.store.append(appends)]

    async def renew(self, pen: Pen, times: Times | None = None) -> Written:
        """Renew the lease of a writer.

        Raises:
            Refused: the engine did not do it.
        """
        (result,) = await self.store.renew([pen.renew(times)])
        return granted(result)

    async def end(self, ending: Ending) -> Summary | None:
        """End the stream of another.

        Raises:
            Refused: the engine did not do it.
        """
        (result,) = await self.store.end([ending])
        return granted(result)

    async def look(self, id_: str) -> Summary | None:
        """What is known of an id.

        Raises:
            Refused: the engine cannot say.
        """
        (result,) = await self.store.look([id_])
        return granted(result)

    async def seen(self, pen: Pen) -> Summary:
        """The stream of a writer, which is known.

        Raises:
            Refused: the engine cannot say.
        """
        found = await self.look(pen.id)
        assert found is not None
        return found

    async def read(self, pen: Pen, after: int = 0, max_bytes: int = 1024 * 1024) -> Part:
        """What the stream of a writer has, which is known.

        Raises:
            Refused: the engine cannot say.
        """
        (result,) = await self.store.read([Query(pen.id, pen.topic, after, max_bytes)])
        found = granted(result)
        assert found is not None
        return found

    async def listed(self, topic: str) -> list[str]:
        """The ids of a topic's streams.

        Raises:
            Refused: the engine cannot say.
        """
        (result,) = await self.store.listed([topic])
        return [summary.id for summary in granted(result)]

    async def until(self, pen: Pen, condition: Callable[[Summary | None], bool]) -> None:
        """Wait until something is so of a stream, by the engine's clock.

        Raises:
            TimeoutError: it is not so within 20 seconds.
        """
        async with asyncio.timeout(DEADLINE):
            while True:
                if condition(await self.look(pen.id)):
                    return
                await asyncio.sleep(0.01)  # there is no event to wait for

    async def until_dead(self, pen: Pen) -> None:
        """Wait until a writer counts as dead.

        Raises:
            TimeoutError: it does not within 20 seconds.
        """
        await self.until(pen, lambda found: found is not None and not found.left)

    async def until_gone(self, pen: Pen) -> None:
        """Wait until what a stream has is gone.

        Raises:
            TimeoutError: it is not within 20 seconds.
        """
        await self.until(pen, lambda found: found is None or found.is_gone)

    def calls(self, pen: Pen) -> list[Coroutine[Any, Any, object]]:
        """One of each of the calls that there are, not awaited."""
        query, store = Query(pen.id, pen.topic), self.store
        return [
            store.begin([pen.begin()]),
            store.append([pen.say("text")]),
            store.renew([pen.renew()]),
            store.end([pen.end()]),
            store.forbid([pen.id], 1),
            store.delete([pen.other().delete()]),
            store.look([pen.id]),
            store.read([query]),
            store.listed([pen.topic]),
            store.mark(),
            store.is_marked(),
        ]


class EngineOfStreams:
    """The methods by which a subclass of `StreamContract` gives access to its engine."""

    async def store(self, prefix: str) -> StreamStore:
        """Make a store that is not connected. All stores and backplanes of one test must use the same engine.

        Args:
            prefix: of its cluster; what the topics begin with.
        """
        raise NotImplementedError

    async def backplane(self) -> Backplane:
        """Make a backplane that is not connected, on the engine of the stores."""
        raise NotImplementedError

    async def kill(self) -> None:
        """End the engine as if its machine had lost power, so that nothing listens at its address."""
        _skip("nothing here kills the engine")

    async def freeze(self) -> None:
        """Stop the engine with its connections open, until `thaw`."""
        _skip("nothing here stops the engine")

    async def thaw(self) -> None:
        """Let a frozen engine run again."""

    async def fill(self) -> None:
        """Leave the engine no memory for anything more."""
        _skip("nothing here fills the engine")

    def topic(self, prefix: str = PREFIX) -> str:
        """A topic that no other test has."""
        return f"{prefix}.room.number={next(_numbers)}"

    def pen(self, topic: str = "", times: Times = LONG, room: str = "room") -> Pen:
        """A writer of a stream that no other test has; in a topic of its own, where none is given."""
        return Pen(f"stream {next(_numbers)}", topic or self.topic(), room, times)

    @asynccontextmanager
    async def scribes(self, count: int, prefix: str = PREFIX) -> AsyncIterator[Sequence[Scribe]]:
        """Connect a number of stores; close and release them at the end of the block."""
        scribes = [Scribe(await self.store(prefix)) for _ in range(count)]
        try:
            async with asyncio.timeout(DEADLINE):
                for scribe in scribes:
                    await scribe.connect()
            yield scribes
        finally:
            for scribe in scribes:
                await scribe.store.close()
                scribe.store.release()

    @asynccontextmanager
    async def scribe(self, prefix: str = PREFIX) -> AsyncIterator[Scribe]:
        """Connect one store, until the end of the block."""
        async with self.scribes(1, prefix) as (scribe,):
            yield scribe

    async def listening(self, *topics: str) -> AbstractAsyncContextManager[Listener]:
        """Return a context manager that connects a backplane and subscribes it to these topics."""
        return listening(await self.backplane(), topics)


def text_of(part: Part, after: int = 0) -> str:
    """The text that was read, without that many characters before it."""
    pieces = [unpack(payload) for payload in part.payloads]
    return join(pieces).after(after).data.decode() if pieces else ""


def _skip(why: str) -> None:
    import pytest  # noqa: PLC0415 - a program that only imports this module does not need it

    pytest.skip(why)
