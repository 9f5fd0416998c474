"""Gaps: messages that other nodes published and this one did not hear, found by their numbers and told to clients.

Knows numbers and topics, and not how other nodes are asked for theirs.

Each sender numbers what it publishes to a topic from 1. A number that is skipped shows a loss at once; what was lost
while this node heard nothing shows when the others are asked how far they have come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Literal

from velocity_ws.cluster.counts import TOO_LATE, ReceivedNumbers
from velocity_ws.cluster.rpc import Replies
from velocity_ws.cluster.topics import Topics
from velocity_ws.messages.address import Address
from velocity_ws.messages.events import encode_missed
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.stats import Counters

__all__ = ["Gaps"]

CHUNK = 2000
"""Topics asked about at once."""


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

    def received(self, topic: str, origin: str, number: int) -> bool:
        """A message came through a topic, with this number of its sender.

        Returns:
            Whether it is in time: one of which the clients were told that it is lost is not for them any more.
        """
        missed = self._numbers.received(topic, origin, number)
        if missed == TOO_LATE:
            return False
        if missed != 0:
            self._missed(topic, missed)
        return True

    def _missed(self, topic: str, missed: int | None) -> None:
        """Count, and tell, how many did not come before one that has; ``None`` where that is unknown."""
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
            missed = self._numbers.settle(topic, origin, count, self._numbers.last(topic, origin))
            self._counters.backplane_missed += missed or 0
            if topic in self._suspects:
                self._add(topic, missed)
            else:
                self._tell(topic, missed)

    def expect_late(self) -> None:
        """The engine does not keep the order where topics move from server to server; see `ReceivedNumbers`."""
        self._numbers.is_ordered = False

    def missed(self, topics: Collection[str]) -> None:
        """On these topics something may not have been heard for a moment. `run` settles them soon."""
        if self._topics.nodes in topics:
            self._missed_order()
        self.suspect(topics)
        self._has_suspects.set()

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
            known = {topic: self._numbers.all(topic) for topic in chunk}
            replies = await ask(chunk)
            if replies.missing:  # those may be on their way back, as this node was
                replies = await ask(chunk)
            origins = frozenset(replies.by_node)  # one for all of them
            for topic in chunk:
                if topic in self._suspects:
                    self._count(topic, replies, known[topic])
                    self._numbers.asked(topic, origins)
        for topic in topics:
            if topic not in self._suspects:
                continue
            missed = self._suspects.pop(topic)
            is_user = self._names.get(topic, ("",))[0] == "user"
            if not is_user or missed != 0:  # rooms are told in any case, and users only where something was missed
                self._tell(topic, missed)

    def _count(self, topic: str, replies: Replies[dict[str, int]], known: dict[str, int]) -> None:
        for origin, counts in replies.by_node.items():
            missed = self._numbers.settle(topic, origin, counts.get(topic, 0), known.get(origin))
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
