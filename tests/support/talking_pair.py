"""Two nodes of this process that talk with each other all the time, each with a client in the room who listens."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.support import Peer, eventually
from tests.support.machine import lateness
from tests.support.nodes import Node, person
from velocity_ws import BackplaneUnavailable

__all__ = ["Listener", "Talker", "TalkingPair", "talking"]


class Talker:
    """Sends numbers to a room from one node, and remembers what it was told of each.

    Attributes:
        outcomes: of each.
        longest: seconds until one was told at most, without those for which the loop was held up.
        stopped: whether it is to send no more.
    """

    def __init__(self, node: Node, late: Callable[[], float]) -> None:
        self.node = node
        self._late = late
        self.outcomes: list[str] = []
        self.longest = 0.0
        self.stopped = False

    async def talk(self) -> None:
        """Send until stopped."""
        loop = asyncio.get_running_loop()
        target = self.node.broker.to_room("x")
        while not self.stopped:
            began = loop.time() - self._late()
            try:
                await target.send("n", [self.node.broker.node_id, len(self.outcomes)])
                self.outcomes.append("published")
            except BackplaneUnavailable as error:
                self.outcomes.append(error.outcome)
            self.longest = max(self.longest, loop.time() - self._late() - began)
            await asyncio.sleep(0.002)


class Listener:
    """Collects what a client gets."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.numbers: dict[str, list[int]] = {}
        self.gaps: list[Any] = []

    async def listen(self) -> None:
        """Until cancelled."""
        async for text in self.peer.ws:
            message = json.loads(text)
            if message["event"] == "n":
                sender, number = message["data"]
                self.numbers.setdefault(sender, []).append(number)
            elif message["event"] == "gap":
                self.gaps.append(message["data"])


class TalkingPair:
    """Two nodes, a client in the room on each, both talking."""

    def __init__(self, pair: Sequence[Node], late: Callable[[], float]) -> None:
        self.pair = pair
        self.talkers = [Talker(node, late) for node in pair]
        self.listeners: list[Listener] = []
        self.others: list[Counter[str]] = [Counter(), Counter()]
        """Outcomes of what the test itself sends, on each node."""

    @property
    def are_healthy(self) -> list[bool]:
        """Whether each node says so."""
        return [node.broker.healthy for node in self.pair]

    async def hears_more(self) -> None:
        """Wait until each listener hears something new from the other node."""
        before = [self._last(index) for index in (0, 1)]
        await eventually(lambda: all(self._last(index) > before[index] for index in (0, 1)))

    def _last(self, index: int) -> int:
        other = self.pair[1 - index].broker.node_id
        return self.listeners[index].numbers.get(other, [-1])[-1]

    def check(self) -> None:
        """Once, in order; and whatever was not heard was refused, unknown or counted as missed, to the last one."""
        for index in (0, 1):
            mine, other = self.pair[index], self.pair[1 - index]
            told = self.talkers[1 - index].outcomes
            got = self.listeners[index].numbers[other.broker.node_id]
            assert got == sorted(set(got))
            unheard = Counter(told[number] for number in set(range(len(told))) - set(got))
            # What was handed over and not confirmed has a number too, so that its loss is counted.
            assert unheard["published"] + unheard["unknown"] == mine.broker.get_stats().backplane_missed
            stats = other.broker.get_stats()
            outcomes = Counter(told) + self.others[1 - index]
            assert stats.backplane_refused == outcomes["refused"]
            assert stats.backplane_unknown == outcomes["unknown"]
            assert stats.backplane_sent == outcomes["published"]
            assert self.listeners[index].numbers[mine.broker.node_id] == list(range(len(self.talkers[index].outcomes)))


@asynccontextmanager
async def talking(pair: Sequence[Node]) -> AsyncIterator[TalkingPair]:
    """Two nodes talking for as long as the block; then all that was said adds up."""
    async with (
        lateness() as late,
        person(pair[0], "ann", "x") as (ann, _),
        person(pair[1], "bob", "x") as (bob, _),
    ):
        found = TalkingPair(pair, late)
        found.listeners = [Listener(ann), Listener(bob)]
        listening = [asyncio.create_task(listener.listen()) for listener in found.listeners]
        talking = [asyncio.create_task(talker.talk()) for talker in found.talkers]
        await eventually(lambda: all(len(listener.numbers) == 2 for listener in found.listeners))
        yield found
        for talker in found.talkers:
            talker.stopped = True
        await asyncio.gather(*talking)
        await eventually(lambda: all(_is_complete(found, index) for index in (0, 1)))
        for task in listening:
            assert not task.done()  # nobody was disconnected
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        found.check()


def _is_complete(found: TalkingPair, index: int) -> bool:
    got = found.listeners[index].numbers
    return all(got[talker.node.broker.node_id][-1] == len(talker.outcomes) - 1 for talker in found.talkers)
