"""Which topics a node listens to: kept equal to what it needs, one change after the other, each confirmed.

Knows topics and the contract of a backplane; what the topics are for, others know.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from velocity_ws.backplane.base import Backplane

__all__ = ["Interest"]

LINGER = 1.0
"""Seconds a topic that nobody needs any more is kept: a page that is loaded anew leaves its room and joins it again."""
CHUNK = 1000
"""Topics subscribed to at once."""


class Interest:
    """The inbound side of a link."""

    def __init__(self, backplane: Backplane, left: Callable[[str, bool], None], linger: float = LINGER) -> None:
        """
        Args:
            backplane: connected while `run` runs.
            left: called with a topic when it is no longer subscribed to, and whether it is needed again meanwhile.
            linger: seconds that a topic is kept when nobody needs it any more.
        """
        self._backplane = backplane
        self._left = left
        self._linger = linger
        self._needed: set[str] = set()
        self._subscribed: set[str] = set()
        # What is to be done, kept as it changes: to look for it among all topics would cost every join.
        self._missing: dict[str, None] = {}
        self._leaving: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._changed = asyncio.Event()

    @property
    def needed(self) -> frozenset[str]:
        """The topics that somebody needs."""
        return frozenset(self._needed)

    @property
    def subscribed(self) -> frozenset[str]:
        """The topics that the engine has confirmed."""
        return frozenset(self._subscribed)

    def hears(self, topic: str) -> bool:
        """Whether the engine has confirmed a topic."""
        return topic in self._subscribed

    def need(self, topic: str) -> None:
        """Listen to a topic from now on."""
        self._needed.add(topic)
        self._leaving.pop(topic, None)
        if topic not in self._subscribed:
            self._missing[topic] = None
            self._changed.set()

    def release(self, topic: str) -> None:
        """Listen to it no more, after a while."""
        self._needed.discard(topic)
        self._missing.pop(topic, None)
        if topic in self._subscribed:
            self._leaving[topic] = asyncio.get_running_loop().time() + self._linger
            self._changed.set()
        else:
            self._give_up(topic)

    def confirmation(self, topic: str) -> asyncio.Future[None] | None:
        """What is done when a needed topic is confirmed, and never cancelled; ``None`` where it is."""
        if topic in self._subscribed or topic not in self._needed:
            return None
        if topic not in self._waiting:
            self._waiting[topic] = asyncio.get_running_loop().create_future()
        return self._waiting[topic]

    def lose(self) -> None:
        """The connection is gone, and with it all subscriptions."""
        gone = self._subscribed - self._needed
        self._subscribed.clear()
        self._leaving.clear()
        for topic in gone:
            self._give_up(topic)
        self._missing = dict.fromkeys(self._needed)

    async def restore(self, timeout: float | None = None) -> None:
        """Subscribe to everything that is needed and is not yet.

        Args:
            timeout: seconds that each part of it may take.

        Raises:
            OSError: the engine did not confirm it.
        """
        while self._missing:
            topics = list(itertools.islice(self._missing, CHUNK))
            async with asyncio.timeout(timeout):
                await self._backplane.subscribe(topics)
            for topic in topics:
                self._missing.pop(topic, None)
                self._subscribed.add(topic)
                if (waiting := self._waiting.pop(topic, None)) is not None:
                    waiting.set_result(None)
                if topic not in self._needed:  # nobody needs it any more meanwhile
                    self.release(topic)

    async def run(self) -> None:
        """Make changes as they are asked for, until cancelled.

        Raises:
            OSError: the engine did not confirm one.
        """
        while True:
            self._changed.clear()  # before looking: what changes while the engine is waited for is looked at again
            await self.restore()
            await self._unsubscribe()
            next_leave = next(iter(self._leaving.values()), None)
            try:
                async with asyncio.timeout_at(next_leave):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _unsubscribe(self) -> None:
        now = asyncio.get_running_loop().time()
        # The first are those that have waited longest.
        over = list(itertools.takewhile(lambda topic: self._leaving[topic] <= now, self._leaving))
        if not over:
            return
        for topic in over:
            del self._leaving[topic]
        # Before the engine is told: who needs one of them from now on has to wait for a new subscription.
        self._subscribed.difference_update(over)
        try:
            await self._backplane.unsubscribe(over)
        finally:
            for topic in over:
                self._left(topic, topic in self._needed)

    def _give_up(self, topic: str) -> None:
        """It is not subscribed to, and nobody needs it."""
        if (waiting := self._waiting.pop(topic, None)) is not None:
            waiting.set_result(None)
        self._left(topic, False)
