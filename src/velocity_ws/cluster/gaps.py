"""Gaps: what others published and this node did not hear, counted, and told to the clients concerned.

Knows numbers and topics; how others are asked for theirs, its user knows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Literal

from velocity_ws.cluster.rpc import Replies
from velocity_ws.cluster.sequences import Heard
from velocity_ws.cluster.topics import Topics
from velocity_ws.messages.address import Address
from velocity_ws.messages.events import encode_missed
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.stats import Counters

__all__ = ["Gaps"]

CHUNK = 2000
"""Topics asked about at once."""


class Gaps:
    """What was missed on each topic. A loss shows by numbers that are skipped, or, after deafness, by asking."""

    def __init__(
        self, topics: Topics, counters: Counters, deliver: Callable[[Address, PreparedMessage], object]
    ) -> None:
        """
        Args:
            topics: of the cluster.
            counters: of the node.
            deliver: gives a message to clients.
        """
        self._topics = topics
        self._counters = counters
        self._deliver = deliver
        self._heard = Heard()
        self._names: dict[str, tuple[Literal["room", "user"], str]] = {}
        self._suspects: dict[str, int | None] = {}
        """Topics that were deaf, and what is known to have been missed on them; ``None`` where it cannot be known."""

    def remember(self, kind: Literal["room", "user"], name: str) -> str:
        """The topic of a room or a user, which is listened to from now on."""
        topic = self._topics.of(kind, name)
        self._names[topic] = (kind, name)
        return topic

    def left(self, topic: str, is_needed: bool) -> None:
        """It is no longer subscribed to; it may be needed again."""
        self._heard.forget(topic)
        if not is_needed:
            self._names.pop(topic, None)
            self._suspects.pop(topic, None)

    def arrived(self, topic: str, origin: str, number: int) -> None:
        """A message came, of which this is the sender's number."""
        missed = self._heard.note(topic, origin, number)
        if missed and topic != self._topics.nodes:
            self._counters.backplane_missed += missed
            if topic in self._suspects:
                self._add(topic, missed)
            else:
                self._tell(topic, missed)

    def begin(self, topics: Iterable[str]) -> None:
        """Nothing is heard on these topics from now on."""
        for topic in topics:
            if topic != self._topics.nodes:
                self._suspects.setdefault(topic, 0)

    async def mend(
        self, hears: Callable[[str], bool], ask: Callable[[tuple[str, ...]], Awaitable[Replies[dict[str, int]]]]
    ) -> None:
        """Find out what was missed on the topics that are heard again, and tell.

        Args:
            hears: whether a topic is.
            ask: asks all nodes how much they have published to topics.
        """
        topics = tuple(filter(hears, self._suspects))
        for at in range(0, len(topics), CHUNK):
            chunk = topics[at : at + CHUNK]
            replies = await ask(chunk)
            for topic in chunk:
                if topic in self._suspects:
                    self._settle(topic, replies)
        for topic in topics:
            if topic not in self._suspects:
                continue
            missed = self._suspects.pop(topic)
            is_user = self._names.get(topic, ("",))[0] == "user"
            if not is_user or missed != 0:  # everyone is told; who has a user is told more only where there is more
                self._tell(topic, missed)

    def _settle(self, topic: str, replies: Replies[dict[str, int]]) -> None:
        for origin, counts in replies.by_node.items():
            missed = self._heard.settle(topic, origin, counts.get(topic, 0))
            self._counters.backplane_missed += missed or 0
            self._add(topic, missed)
        if replies.missing or replies.errors:
            self._add(topic, None)

    def _add(self, topic: str, missed: int | None) -> None:
        known = self._suspects[topic]
        self._suspects[topic] = None if known is None or missed is None else known + missed

    def _tell(self, topic: str, missed: int | None) -> None:
        """Tell those whose messages came through a topic that some did not: ``missed`` of them, where it is known."""
        if topic == self._topics.all:
            kind, name = "all", None
        elif topic in self._names:
            kind, name = self._names[topic]
        else:
            return  # what is for this node, or a few clients; or for nobody any more
        self._counters.backplane_gaps += 1
        address = Address("all") if name is None else Address("rooms" if kind == "room" else "users", (name,))
        self._deliver(address, encode_missed(name if kind == "room" else None, missed))
