"""Gaps: messages that other nodes published and this one did not hear, found by their numbers and told to clients.

Knows numbers and topics, and not how other nodes are asked for theirs.

Each sender numbers what it publishes to a topic from 1. A number that is skipped shows a loss at once; what was lost
while this node heard nothing shows when the others are asked how far they have come. What is kept is bounded: numbers
that are forgotten can no longer show a loss, and never show one that was not.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal

from velocity_ws.cluster.rpc import Replies
from velocity_ws.cluster.topics import Topics
from velocity_ws.messages.address import Address
from velocity_ws.messages.events import encode_missed
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.stats import Counters

__all__ = ["Gaps", "ReceivedNumbers", "SentNumbers"]

CHUNK = 2000
"""Topics asked about at once."""
MAX_TOPICS = 100_000
"""Topics of which a node keeps its own numbers."""
MAX_ORIGINS = 1000
"""Senders of which a topic keeps the numbers; nodes are few, but every script that sends is one."""


class SentNumbers:
    """How many messages this node has published to each topic.

    Attributes:
        total: to all of them.
    """

    def __init__(self) -> None:
        self.total = 0
        self._counts: dict[str, int] = {}

    def next(self, topic: str) -> int:
        """The number of the next message to a topic, from 1."""
        counts = self._counts
        number = counts.pop(topic, 0) + 1  # and so the last: the first is the one that was not used for longest
        if number == 1 and len(counts) >= MAX_TOPICS:
            del counts[next(iter(counts))]
        counts[topic] = number
        self.total += 1
        return number

    def newest(self, count: int) -> dict[str, int]:
        """The numbers of the topics to which the last ``count`` messages went, and perhaps of others."""
        return {topic: self._counts[topic] for topic in itertools.islice(reversed(self._counts), count)}

    def count(self, topic: str) -> int:
        """The number of the last message to a topic; 0 where there was none."""
        return self._counts.get(topic, 0)


class ReceivedNumbers:
    """The last number received from each sender on each topic that is subscribed to."""

    def __init__(self) -> None:
        self._last: dict[str, dict[str, int]] = {}

    def received(self, topic: str, origin: str, number: int) -> int | None:
        """Take the number of a message that came.

        Returns:
            How many before it did not come; ``None`` where that is unknown, as nothing of the sender came before.
        """
        last = self._keep(topic, origin, number)
        if last is None:
            return None if number > 1 else 0
        # A lower number than before is a sender that has forgotten its own.
        return max(0, number - last - 1)

    def settle(self, topic: str, origin: str, count: int) -> int | None:
        """Take what a sender says it has published to a topic; the next one shows what is missing behind that.

        Returns:
            How many of them never came; ``None`` where that is unknown.
        """
        last = self._last.get(topic, {}).get(origin)
        if last is None and count == 0:
            return 0
        if last is not None and count < last:  # it has forgotten how many there were
            return None
        self._keep(topic, origin, count)
        return None if last is None else count - last

    def has(self, topic: str, origin: str, count: int) -> bool:
        """Whether as many messages of a sender, or more, have come through a topic, or would have shown a loss."""
        return self._last.get(topic, {}).get(origin, 0) >= count

    def _keep(self, topic: str, origin: str, number: int) -> int | None:
        """Keep a number; the one before, where there is one."""
        senders = self._last.get(topic)
        if senders is None:
            senders = self._last[topic] = {}
        last = senders.pop(origin, None)
        if last is None and len(senders) >= MAX_ORIGINS:
            del senders[next(iter(senders))]
        senders[origin] = number
        return last

    def forget(self, topic: str) -> None:
        """Forget all senders of a topic, which is no longer subscribed to."""
        self._last.pop(topic, None)


class Gaps:
    """What was missed on each topic. On the broker's loop only."""

    def __init__(
        self,
        topics: Topics,
        counters: Counters,
        deliver: Callable[[Address, PreparedMessage], object],
        missed_order: Callable[[], None] = lambda: None,
        look: Callable[[str, int], bool] = lambda *_: False,
    ) -> None:
        """
        Args:
            topics: the cluster's.
            counters: the node's; what was missed is counted there.
            deliver: gives a message to clients of this node.
            missed_order: called when something that was said to all nodes did not come.
            look: looks in a room's log whether something was missed, where it has one, and tells how many were missed
                that no log keeps; says whether it has one.
        """
        self._topics = topics
        self._counters = counters
        self._deliver = deliver
        self._missed_order = missed_order
        self._look = look
        self._numbers = ReceivedNumbers()
        self._names: dict[str, tuple[Literal["room", "user"], str]] = {}
        self._suspects: dict[str, int | None] = {}
        """Topics not heard for a while, and what is known to have been missed there; ``None`` where that is unknown."""
        self._unconfirmed: set[asyncio.Future[None]] = set()
        self._has_suspects = asyncio.Event()

    def track(self, kind: Literal["room", "user"], name: str) -> str:
        """Remember a room or a user that is subscribed to from now on; its topic."""
        topic = self._topics.of(kind, name)
        self._names[topic] = (kind, name)
        return topic

    def unsubscribed(self, topic: str, is_needed: bool) -> None:
        """A topic is no longer subscribed to.

        Args:
            topic: which.
            is_needed: whether it is needed again meanwhile, and will be subscribed to anew.
        """
        self._numbers.forget(topic)
        if not is_needed:
            self._names.pop(topic, None)
            self._suspects.pop(topic, None)

    def received(self, topic: str, origin: str, number: int) -> None:
        """A message came through a topic, with this number of its sender."""
        missed = self._numbers.received(topic, origin, number)
        if missed == 0:
            return
        if topic == self._topics.nodes:
            if missed:
                self._missed_order()
            return
        self._counters.backplane_missed += missed or 0
        if topic in self._suspects:  # of which others are asked, who know no more of what came before this
            self._add(topic, missed)
        elif missed:
            self._tell(topic, missed)

    def told(self, origin: str, counts: dict[str, int]) -> None:
        """A node has said how many messages it has published to each of some topics, which may have come to nobody."""
        for topic, count in counts.items():
            is_needed = topic == self._topics.all or topic in self._names
            if not is_needed or self._numbers.has(topic, origin, count):
                continue
            missed = self._numbers.settle(topic, origin, count)
            self._counters.backplane_missed += missed or 0
            if topic in self._suspects:
                self._add(topic, missed)
            else:
                self._tell(topic, missed)

    def connecting(self) -> None:
        """A connection begins: what was said to all nodes until then was missed, and is not counted."""
        self._numbers.forget(self._topics.nodes)

    def suspect(self, topics: Iterable[str]) -> None:
        """Nothing is heard on these topics from now on. `run` settles them when they are heard again."""
        for topic in topics:
            if topic != self._topics.nodes:
                self._suspects.setdefault(topic, 0)

    def suspect_until(self, topic: str, confirmation: asyncio.Future[None]) -> None:
        """Nothing is surely heard on a topic until the engine confirms the subscription to it."""
        self.suspect([topic])
        if confirmation not in self._unconfirmed:
            self._unconfirmed.add(confirmation)
            confirmation.add_done_callback(self._confirmed)

    def _confirmed(self, confirmation: asyncio.Future[None]) -> None:
        self._unconfirmed.discard(confirmation)
        self._has_suspects.set()

    async def run(
        self,
        is_subscribed: Callable[[str], bool],
        ask: Callable[[tuple[str, ...]], Awaitable[Replies[dict[str, int]]]],
    ) -> None:
        """Settle the suspect topics that are heard again, now and each time one is confirmed, until cancelled.

        Args:
            is_subscribed: whether a topic is heard.
            ask: asks all nodes how many messages they have published to each of some topics.
        """
        while True:
            self._has_suspects.clear()
            await self._settle(tuple(filter(is_subscribed, self._suspects)), ask)
            await self._has_suspects.wait()

    async def _settle(
        self, topics: tuple[str, ...], ask: Callable[[tuple[str, ...]], Awaitable[Replies[dict[str, int]]]]
    ) -> None:
        for at in range(0, len(topics), CHUNK):
            chunk = topics[at : at + CHUNK]
            replies = await ask(chunk)
            if replies.missing:  # those may be on their way back, as this node was
                replies = await ask(chunk)
            for topic in chunk:
                if topic in self._suspects:
                    self._count(topic, replies)
        for topic in topics:
            if topic not in self._suspects:
                continue
            missed = self._suspects.pop(topic)
            is_user = self._names.get(topic, ("",))[0] == "user"
            if not is_user or missed != 0:  # rooms are told in any case, and users only where something was missed
                self._tell(topic, missed)

    def _count(self, topic: str, replies: Replies[dict[str, int]]) -> None:
        for origin, counts in replies.by_node.items():
            missed = self._numbers.settle(topic, origin, counts.get(topic, 0))
            self._counters.backplane_missed += missed or 0
            self._add(topic, missed)
        if replies.missing or replies.errors:
            self._add(topic, None)

    def _add(self, topic: str, missed: int | None) -> None:
        known = self._suspects[topic]
        self._suspects[topic] = None if known is None or missed is None else known + missed

    def _tell(self, topic: str, missed: int | None) -> None:
        """Tell the clients whose messages come through a topic how many they missed; ``None`` where it is unknown."""
        if topic == self._topics.all:
            kind, name = "all", None
        elif topic in self._names:
            kind, name = self._names[topic]
        else:
            return  # what is for this node or a few clients; or for a room or a user without clients by now
        if kind == "room" and name is not None and self._look(name, missed or 0):
            return  # what its log has comes from there, and its members are told by their places of all else
        self._counters.backplane_gaps += 1
        address = Address("all") if name is None else Address("rooms" if kind == "room" else "users", (name,))
        self._deliver(address, encode_missed(name if kind == "room" else None, missed))
