"""Numbers of messages, so that a loss shows: what was published to each topic, and what was heard of each sender.

Pure. Bounded: what is forgotten can no longer show a loss, and shows none that was not.
"""

from __future__ import annotations

__all__ = ["Heard", "Sent"]

MAX_TOPICS = 100_000
"""Topics a node keeps its own numbers of."""
MAX_ORIGINS = 1000
"""Senders a topic keeps the numbers of; nodes are few, but every script that sends is one."""


class Sent:
    """How many messages this node has published to each topic."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def next(self, topic: str) -> int:
        """The number of the next message to a topic, from 1."""
        counts = self._counts
        number = counts.pop(topic, 0) + 1  # and so the last: the first is the one that was not used for longest
        if number == 1 and len(counts) >= MAX_TOPICS:
            del counts[next(iter(counts))]
        counts[topic] = number
        return number

    def count(self, topic: str) -> int:
        """How many there were."""
        return self._counts.get(topic, 0)


class Heard:
    """The last number heard from each sender on each topic that is subscribed to."""

    def __init__(self) -> None:
        self._last: dict[str, dict[str, int]] = {}

    def note(self, topic: str, origin: str, number: int) -> int:
        """A message arrived; how many before it did not. Unknown, and so none, for the first of a sender."""
        senders = self._last.get(topic)
        if senders is None:
            senders = self._last[topic] = {}
        last = senders.pop(origin, None)
        if last is None:
            if len(senders) >= MAX_ORIGINS:
                del senders[next(iter(senders))]
            senders[origin] = number
            return 0
        senders[origin] = number
        # A lower number than before is a sender that has forgotten its own.
        return number - last - 1 if number > last else 0

    def settle(self, topic: str, origin: str, count: int) -> int | None:
        """A sender says how many it has published; how many of them never came, ``None`` where that is unknown."""
        senders = self._last.get(topic, {})
        last = senders.get(origin)
        if last is None:
            return 0 if count == 0 else None
        if count < last:  # it has forgotten how many there were
            return None
        senders[origin] = count
        return count - last

    def forget(self, topic: str) -> None:
        """It is no longer subscribed to."""
        self._last.pop(topic, None)
