"""A link to a store within this process, whose calls are noted, and wait or fail when a test says so."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support import DEADLINE
from velocity_ws.backplane.base import Lost
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.history.base import HistoryStore
from velocity_ws.history.items import Append, Appended, Limits, Log, Lookup, Query, Range, Refused, Removal, Top
from velocity_ws.history.link import HistoryLink
from velocity_ws.history.memory import MemoryHistory
from velocity_ws.stats import Counters

__all__ = ["LOG", "OURS", "Node", "Store", "failing", "linked", "names_of_tasks"]

LOG = Log("velocity.room.chat", Limits(10_000, 3600_000, 64 * 1024**2))
OURS = {"velocity-ws history", "velocity-ws link"}
"""The names of the tasks of a link."""
_names = itertools.count()


class Store(MemoryHistory):
    """The store.

    Attributes:
        calls: the name of each call, and how many were asked in it.
        most_at_once: calls.
        on_moved: see `MovingStore`.
        lost: ends the connection.
        problem: what connecting raises.
        error: what calls raise, once they are done.
        is_held: whether calls wait until `let`, once they are done.
        moving: topics of logs that are on their way to another server, and not appended to until they are there.
        releases: how often it was released.
    """

    append_now = None  # type: ignore[assignment] # it is waited for, as an engine is

    def __init__(self) -> None:
        super().__init__(f"memory://history-link-{next(_names)}")
        self.calls: list[tuple[str, int]] = []
        self.most_at_once = 0
        self.on_moved: Callable[[], None] = lambda: None
        self.lost: Lost | None = None
        self.problem: Exception | None = None
        self.error: Exception | None = None
        self.is_held = False
        self.moving: set[str] = set()
        self.releases = 0
        self._let = asyncio.Event()
        self._running = 0

    async def connect(self, lost: Lost) -> None:
        if self.problem is not None:
            raise self.problem
        self.lost = lost
        await super().connect(lost)

    def release(self) -> None:
        self.releases += 1
        super().release()

    def let(self) -> None:
        """Let all that is held go on."""
        self.is_held = False
        self._let.set()
        self._let = asyncio.Event()

    async def _noted(self, name: str, asked: Sequence[Any], call: Awaitable[Any]) -> Any:
        self.calls.append((name, len(asked)))
        self._running += 1
        self.most_at_once = max(self.most_at_once, self._running)
        try:
            answer = await call
            if self.is_held:
                await self._let.wait()
            if self.error is not None:
                raise self.error
            return answer
        finally:
            self._running -= 1

    async def append(self, appends: Sequence[Append]) -> list[Appended | Refused]:
        staying = [append for append in appends if append.log.topic not in self.moving]
        refused = {index for index, append in enumerate(appends) if append.log.topic in self.moving}
        found = iter(await self._noted("append", appends, super().append(staying)))
        return [Refused("moving", "not now") if index in refused else next(found) for index in range(len(appends))]

    async def tops(self, logs: Sequence[Log]) -> list[Top | Refused]:
        found: list[Top | Refused] = await self._noted("tops", logs, super().tops(logs))
        return found

    async def read(self, queries: Sequence[Query]) -> list[Range | Refused]:
        found: list[Range | Refused] = await self._noted("read", queries, super().read(queries))
        return found

    async def remove(self, removals: Sequence[Removal]) -> list[Top | Refused]:
        found: list[Top | Refused] = await self._noted("remove", removals, super().remove(removals))
        return found

    async def removed(self, lookups: Sequence[Lookup]) -> list[int]:
        found: list[int] = await self._noted("removed", lookups, super().removed(lookups))
        return found

    async def clear(self, log: Log, notice: bytes = b"") -> Top:
        found: Top = await self._noted("clear", [log], super().clear(log, notice))
        return found


class NearStore(Store):
    """The store, where nothing of an append is waited for; it is neither held nor moving."""

    append_now = MemoryHistory.append_now  # type: ignore[assignment] # which `Store` has not


class Node:
    """What a node has of a link: what it was told, and the link."""

    def __init__(self, store: HistoryStore, timeout: float = DEADLINE, queue_size: int = 8 * 1024**2) -> None:
        self.told: list[str] = []
        self.had: list[Appended] = []
        self.counters = Counters()
        self.link = HistoryLink(
            store, timeout=timeout, queue_size=queue_size, counters=self.counters, engine="memory://test"
        )
        self.link.on_up.append(lambda: self.told.append("up"))
        self.link.on_down.append(lambda: self.told.append("down"))

    def append(self, envelope: bytes, log: Log = LOG, **more: Any) -> asyncio.Task[Appended]:
        """Begin to append, in a task of a caller's."""
        return asyncio.create_task(self._append(Append(log, envelope, **more)))

    async def _append(self, append: Append) -> Appended:
        return await self.link.append(append, self.had.append)

    @property
    def outcomes(self) -> tuple[int, int, int]:
        """How many appends are counted as sent, refused and unknown."""
        counters = self.counters
        return counters.backplane_sent, counters.backplane_refused, counters.backplane_unknown

    def offsets(self) -> list[int]:
        """Of the entries that it was told of."""
        return [appended.stamp.position.offset for appended in self.had]


def names_of_tasks() -> set[str]:
    """Of those that run."""
    return {task.get_name() for task in asyncio.all_tasks()}


@asynccontextmanager
async def linked(store: HistoryStore, patience: float = DEADLINE, **options: Any) -> AsyncIterator[Node]:
    """A node with a link to a store, for as long as the block; it leaves nothing behind."""
    before = names_of_tasks() & OURS
    node = Node(store, **options)
    await node.link.start(patience)
    try:
        yield node
    finally:
        await node.link.stop()
        assert not node.link.is_up
        assert names_of_tasks() & OURS == before


async def failing(call: Awaitable[object]) -> BackplaneUnavailable:
    """The error with which something ends."""
    with pytest.raises(BackplaneUnavailable) as caught:
        await call
    return caught.value
