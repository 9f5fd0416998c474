"""Counts: how many messages each sender has published to each topic, on both sides. Pure.

What is kept is bounded: numbers that are forgotten can no longer show a loss, and never show one that was not.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection

__all__ = ["TOO_LATE", "ReceivedNumbers", "SentNumbers"]

MAX_TOPICS = 100_000
"""Topics of which a node keeps its own numbers."""
MAX_ORIGINS = 1000
"""Senders of which a topic keeps the numbers; nodes are few, but every script that sends is one."""
TOO_LATE = -1
"""In place of how many were missed before a message: that it is not to be taken."""


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
    """The last number received from each sender on each topic that is subscribed to.

    Attributes:
        is_ordered: whether what a sender publishes to a topic comes in its order, and once, as long as the connection
            goes on. In a Redis Cluster it may come a second time, or late, by the server that had the topic before.
    """

    def __init__(self) -> None:
        self.is_ordered = True
        self._last: dict[str, dict[str, int]] = {}
        self._floors: dict[str, dict[str, int]] = {}
        """Behind which number of a sender, up to the last, all have come or count as missed."""
        self._asked: dict[str, Collection[str]] = {}
        """Who has said of a topic how much it had published. Of whom no number is kept, that was nothing."""

    def received(self, topic: str, origin: str, number: int) -> int | None:
        """Take the number of a message that came.

        Returns:
            How many before it did not come; ``None`` where that is unknown, as nothing of the sender came before;
            `TOO_LATE` for one that has come before, or counts as missed, as it was on its way for longer than what was
            sent later.
        """
        known = self.last(topic, origin)  # before one is forgotten for it
        last = self._keep(topic, origin, number)
        if last is None:
            last = known
        if last is None:
            if not self.is_ordered:
                self._set_floor(topic, origin, number - 1)
            return None if number > 1 else 0
        if number > last + 1:
            self._set_floor(topic, origin, last)
        if number > last:
            return number - last - 1
        floor = self._floors.get(topic, {}).get(origin, last)
        if number == 1 or (self.is_ordered and number <= floor):  # it has forgotten how many there were
            self._floors.get(topic, {}).pop(origin, None)
            if not self.is_ordered:
                self._set_floor(topic, origin, 0)
            return 0
        self._keep(topic, origin, last)
        return TOO_LATE if number > floor else 0

    def last(self, topic: str, origin: str) -> int | None:
        """The last number of a sender of a topic; ``None`` for none, and 0 where it is known that there is none."""
        return self._last.get(topic, {}).get(origin, 0 if origin in self._asked.get(topic, ()) else None)

    def all(self, topic: str) -> dict[str, int]:
        """The last number of each sender of a topic, as far as it is known."""
        return dict.fromkeys(self._asked.get(topic, ()), 0) | self._last.get(topic, {})

    def asked(self, topic: str, origins: Collection[str]) -> None:
        """These senders have said how much they had published to a topic, and that was settled."""
        self._asked[topic] = origins

    def settle(self, topic: str, origin: str, count: int, known: int | None) -> int | None:
        """Take what a sender says it has published to a topic; the next one shows what is missing behind that.

        Args:
            topic: the topic.
            origin: the sender.
            count: how many there were when it was asked.
            known: the last number of it that had come then; ``None`` for none.

        Returns:
            How many of them never came; ``None`` where that is unknown.
        """
        last = self.last(topic, origin) or 0
        if count < (known or 0):  # it has forgotten how many there were
            self._last.get(topic, {}).pop(origin, None)
            self._floors.get(topic, {}).pop(origin, None)
            return None
        if count > last:
            self._set_floor(topic, origin, last)
            self._keep(topic, origin, count)
        if known is None:
            return None if count else 0
        return max(0, count - last)

    def has(self, topic: str, origin: str, count: int) -> bool:
        """Whether as many messages of a sender, or more, have come through a topic, or would have shown a loss."""
        return (self.last(topic, origin) or 0) >= count

    def forget(self, topic: str) -> None:
        """Forget all senders of a topic, which is no longer subscribed to."""
        self._last.pop(topic, None)
        self._floors.pop(topic, None)
        self._asked.pop(topic, None)

    def _keep(self, topic: str, origin: str, number: int) -> int | None:
        """Keep a number; the one before, where there is one."""
        senders = self._last.get(topic)
        if senders is None:
            senders = self._last[topic] = {}
        last = senders.pop(origin, None)
        if last is None and len(senders) >= MAX_ORIGINS:
            oldest = next(iter(senders))
            del senders[oldest]
            self._asked.pop(topic, None)  # it may be among them, and had published something
            self._floors.get(topic, {}).pop(oldest, None)
        senders[origin] = number
        return last

    def _set_floor(self, topic: str, origin: str, number: int) -> None:
        self._floors.setdefault(topic, {}).setdefault(origin, number)
