"""What happens to nodes in processes of their own, and to their engine: they are killed, frozen, deployed, cut."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from tests.support.dead_network import Network
from tests.support.remembering import Remembering
from tests.support.talking import Process

__all__ = ["BETWEEN", "Disturbing"]

BETWEEN = 5.0
"""Seconds from one disturbance to the next."""

Event = Callable[[], Awaitable[None]]


class Disturbing:
    """Nodes, and the engine that they share.

    Attributes:
        nodes: all of them.
        engine: what they share.
        ways: by which they reach it.
        happened: how often each disturbance was.
        frozen: seconds for which a node is frozen, at least and at most.
        ended: nodes that were killed, by the ids of their processes, and when, as `time.monotonic` has it.
    """

    frozen = (1.0, 4.0)

    def __init__(
        self, engine: Remembering, ways: Sequence[Network], nodes: Sequence[Process], chance: random.Random
    ) -> None:
        """
        Args:
            engine: what the nodes share.
            ways: by which they reach it.
            nodes: all of them, started.
            chance: chooses.
        """
        self.engine = engine
        self.ways = ways
        self.nodes = nodes
        self.happened: Counter[str] = Counter()
        self.ended: dict[int, tuple[Process, float]] = {}
        self._chance = chance

    async def node_is_killed(self) -> None:
        node = self._chance.choice(self.nodes)
        self.ended[node.pid] = node, time.monotonic()
        node.signal(signal.SIGKILL)
        await node.ended()
        await asyncio.sleep(0.5)
        await node.start()

    async def node_is_frozen(self) -> None:
        node = self._chance.choice(self.nodes)
        node.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(self._chance.uniform(*self.frozen))
        finally:
            node.signal(signal.SIGCONT)

    async def node_is_deployed(self) -> None:
        node = self._chance.choice(self.nodes)
        node.signal(signal.SIGTERM)
        assert await asyncio.wait_for(node.ended(), 30) == 0
        await node.start()

    async def connections_are_killed(self) -> None:
        for way in self.ways:
            await way.close()

    async def engine_is_frozen(self) -> None:
        self.engine.freeze()
        try:
            await asyncio.sleep(3)
        finally:
            self.engine.thaw()

    async def engine_is_killed(self) -> None:
        await self.engine.kill()
        await asyncio.sleep(self._chance.uniform(0, 1))
        await self.engine.start()

    async def happen(self, events: Sequence[Event], seconds: float) -> None:
        """Do one of these now and then, each of them equally often."""
        end, waiting = time.monotonic() + seconds, list[Event]()
        while time.monotonic() < end:
            await asyncio.sleep(BETWEEN)
            if not waiting:
                waiting = self._chance.sample(events, len(events))
            event = waiting.pop()
            self.happened[getattr(event, "__name__", "")] += 1
            await event()
