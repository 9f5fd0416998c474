"""Subscriptions: which topics a node listens to, kept equal to what it needs, each change confirmed by the engine.

Knows the contract of a backplane, and not what the topics are for.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable

from velocity_ws.backplane.base import Backplane

__all__ = ["LINGER", "Subscriptions"]

LINGER = 1.0
"""Seconds a topic that is no longer needed is kept: a page that is loaded anew leaves its room and joins it again."""
CHUNK = 1000
"""Topics subscribed to at once."""


class Subscriptions:
    """The inbound side of a link. On the broker's loop only."""

    def __init__(
        self,
        backplane: Backplane,
        dropped: Callable[[str, bool], None],
        linger: float = LINGER,
        spread: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """
        Args:
            backplane: connected while `run` runs.
            dropped: called with a topic that is no longer subscribed to, and whether it is needed again meanwhile.
            linger: seconds that a topic is kept when it is no longer needed.
            spread: waits until what `run` has subscribed to is heard from everywhere; see `Spreading`.
        """
        self._backplane = backplane
        self._dropped = dropped
        self._linger = linger
        self._spread = spread
        self._needed: set[str] = set()
        self._held: Counter[str] = Counter()
        self._only_held: set[str] = set()
        self._first: set[str] = set()
        self._confirmed: set[str] = set()
        # What is to be done, kept as it changes: to look for it among all topics would cost every join.
        self._missing: dict[str, None] = {}
        self._lingering: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._changed = asyncio.Event()

    @property
    def needed(self) -> frozenset[str]:
        """The topics that are needed."""
        return frozenset(self._needed)

    @property
    def confirmed(self) -> frozenset[str]:
        """The topics that the engine has confirmed."""
        return frozenset(self._confirmed)

    def is_confirmed(self, topic: str) -> bool:
        """Whether the engine has confirmed a topic, so that what is published to it is heard."""
        return topic in self._confirmed

    def add_first(self, topic: str) -> None:
        """Need a topic as `add` says, and hear it, on each connection, before any other that is not of these."""
        self._first.add(topic)
        self.add(topic)

    def add(self, topic: str) -> None:
        """Need a topic from now on. `run` subscribes to it."""
        self._only_held.discard(topic)
        self._needed.add(topic)
        self._lingering.pop(topic, None)
        if topic not in self._confirmed:
            self._missing[topic] = None
            self._changed.set()

    def discard(self, topic: str) -> None:
        """Need a topic no more, unless somebody holds it. `run` unsubscribes from it after a while."""
        if topic in self._held:
            self._only_held.add(topic)
            return
        self._needed.discard(topic)
        self._missing.pop(topic, None)
        if topic in self._confirmed:
            self._lingering[topic] = asyncio.get_running_loop().time() + self._linger
            self._changed.set()
        else:
            self._drop(topic)

    def hold(self, topic: str) -> None:
        """Need a topic until `let_go` was called as often, whether it is added or not."""
        is_needed = topic in self._needed
        self._held[topic] += 1
        if not is_needed:
            self.add(topic)
            self._only_held.add(topic)

    def let_go(self, topic: str) -> None:
        """See `hold`."""
        self._held[topic] -= 1
        if not self._held[topic]:
            del self._held[topic]
            if topic in self._only_held:
                self._only_held.discard(topic)
                self.discard(topic)

    def confirmation(self, topic: str) -> asyncio.Future[None] | None:
        """A future that is done when a needed topic is confirmed, and never cancelled; ``None`` where it is already."""
        if topic in self._confirmed or topic not in self._needed:
            return None
        if topic not in self._waiting:
            self._waiting[topic] = asyncio.get_running_loop().create_future()
        return self._waiting[topic]

    def connection_lost(self) -> None:
        """The connection is gone, and with it all subscriptions."""
        gone = self._confirmed - self._needed
        self._confirmed.clear()
        self._lingering.clear()
        for topic in gone:
            self._drop(topic)
        self._missing = dict.fromkeys(self._needed)

    async def restore(self, timeout: float | None = None, spread: Callable[[], Awaitable[None]] | None = None) -> None:
        """Subscribe to everything that is needed and not confirmed.

        Args:
            timeout: seconds that each `CHUNK` of it may take.
            spread: waits until it is heard from everywhere. Not needed where others are asked what was missed.

        Raises:
            OSError: the engine did not confirm it.
        """
        while self._missing:
            topics = [topic for topic in self._first if topic in self._missing]
            topics = topics or list(itertools.islice(self._missing, CHUNK))
            async with asyncio.timeout(timeout):
                await self._backplane.subscribe(topics)
            if spread is not None:
                await spread()
            for topic in topics:
                self._missing.pop(topic, None)
                self._confirmed.add(topic)
                if (waiting := self._waiting.pop(topic, None)) is not None:
                    waiting.set_result(None)
                if topic not in self._needed:  # it was discarded meanwhile
                    self.discard(topic)

    async def run(self) -> None:
        """Make changes as they are asked for, until cancelled.

        Raises:
            OSError: the engine did not confirm one.
        """
        while True:
            self._changed.clear()  # before looking: what changes while the engine is waited for is looked at again
            await self.restore(spread=self._spread)
            await self._unsubscribe()
            next_over = next(iter(self._lingering.values()), None)
            try:
                async with asyncio.timeout_at(next_over):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _unsubscribe(self) -> None:
        now = asyncio.get_running_loop().time()
        # The first are those that have waited longest.
        over = list(itertools.takewhile(lambda topic: self._lingering[topic] <= now, self._lingering))
        if not over:
            return
        for topic in over:
            del self._lingering[topic]
        # Before the engine is told: what is needed again from now on has to wait for a new subscription.
        self._confirmed.difference_update(over)
        try:
            await self._backplane.unsubscribe(over)
        finally:
            for topic in over:
                self._dropped(topic, topic in self._needed)

    def _drop(self, topic: str) -> None:
        """A topic is neither subscribed to nor needed."""
        if (waiting := self._waiting.pop(topic, None)) is not None:
            waiting.set_result(None)
        self._dropped(topic, False)
