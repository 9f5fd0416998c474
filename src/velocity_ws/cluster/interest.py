"""Which topics a node listens to: kept equal to what it needs, one change after the other, each confirmed.

Knows topics and the contract of a backplane; what the topics are for, others know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from velocity_ws.backplane.base import Backplane

__all__ = ["Interest"]

LINGER = 1.0
"""Seconds a topic that nobody needs any more is kept: a page that is loaded anew leaves its room and joins it again."""
CHUNK = 1000
"""Topics subscribed to at once."""


class Interest:
    """The inbound side of a link."""

    def __init__(self, backplane: Backplane, forget: Callable[[str], None], linger: float = LINGER) -> None:
        """
        Args:
            backplane: connected while `run` runs.
            forget: called with a topic when it is no longer subscribed to.
            linger: seconds that a topic is kept when nobody needs it any more.
        """
        self._backplane = backplane
        self._forget = forget
        self._linger = linger
        self._needed: set[str] = set()
        self._subscribed: set[str] = set()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._leaving: dict[str, float] = {}
        self._changed = asyncio.Event()

    @property
    def subscribed(self) -> frozenset[str]:
        """The topics that the engine has confirmed."""
        return frozenset(self._subscribed)

    def need(self, topic: str) -> None:
        """Listen to a topic from now on."""
        self._needed.add(topic)
        self._leaving.pop(topic, None)
        if topic not in self._subscribed:
            self._changed.set()

    def release(self, topic: str) -> None:
        """Listen to it no more, after a while."""
        self._needed.discard(topic)
        if topic in self._subscribed:
            self._leaving[topic] = asyncio.get_running_loop().time() + self._linger
            self._changed.set()
        elif (waiting := self._waiting.pop(topic, None)) is not None:
            waiting.set_result(None)  # nobody has to wait for it

    def confirmation(self, topic: str) -> asyncio.Future[None] | None:
        """What is done when a needed topic is confirmed, and never cancelled; ``None`` where it is."""
        if topic in self._subscribed or topic not in self._needed:
            return None
        if topic not in self._waiting:
            self._waiting[topic] = asyncio.get_running_loop().create_future()
        return self._waiting[topic]

    def lose(self) -> None:
        """The connection is gone, and with it all subscriptions."""
        self._subscribed.clear()
        self._leaving.clear()

    async def restore(self) -> None:
        """Subscribe to everything needed, over a new connection.

        Raises:
            OSError: the engine did not confirm it.
        """
        while missing := self._needed - self._subscribed:
            await self._subscribe(sorted(missing)[:CHUNK])

    async def run(self) -> None:
        """Make changes as they are asked for, until cancelled.

        Raises:
            OSError: the engine did not confirm one.
        """
        while True:
            self._changed.clear()  # before looking: what changes while the engine is waited for is looked at again
            await self.restore()
            await self._unsubscribe()
            next_leave = min(self._leaving.values(), default=None)
            try:
                async with asyncio.timeout_at(next_leave):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _subscribe(self, topics: list[str]) -> None:
        await self._backplane.subscribe(topics)
        self._subscribed.update(topics)
        for topic in topics:
            if (waiting := self._waiting.pop(topic, None)) is not None:
                waiting.set_result(None)
            if topic not in self._needed:  # nobody needs it any more meanwhile
                self.release(topic)

    async def _unsubscribe(self) -> None:
        now = asyncio.get_running_loop().time()
        over = [topic for topic, at in self._leaving.items() if at <= now]
        for topic in over:
            del self._leaving[topic]
        # Before the engine is told: who needs one of them from now on has to wait for a new subscription.
        self._subscribed.difference_update(over)
        if over:
            await self._backplane.unsubscribe(over)
            for topic in over:
                if topic not in self._subscribed:
                    self._forget(topic)

    def settle(self, topics: Iterable[str]) -> None:
        """Need these from the beginning."""
        self._needed.update(topics)
