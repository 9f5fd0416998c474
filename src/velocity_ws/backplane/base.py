"""The contract of a backplane: one connection to an engine that carries bytes between nodes.

A backplane only carries. Who is in which room, what is sent again after a failure (nothing), when to connect anew: all
of that is its user's. `velocity_ws.testing` has the suite that every backplane passes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

__all__ = ["Backplane", "Lost", "Receive"]

Receive = Callable[[str, bytes], None]
"""Called on the loop with a topic and what was published to it. It does not wait and does not raise."""
Lost = Callable[[Exception], None]
"""Called on the loop, once, when a connection has ended by itself, and says why."""


class Backplane(Protocol):
    """One connection to an engine, opened, closed and opened again by its user, on one loop.

    Topics are strings of 1 to 250 of the characters ``A-Z a-z 0-9 . _ - = ~``, parted by single dots; payloads are any
    bytes. ``subscribe`` and ``unsubscribe`` are called one at a time, and so is ``publish``; the two kinds overlap.
    Whatever raises, or is cancelled because it took too long, leaves the connection to be closed by its user.
    Errors of the engine and the network are raised as `OSError` (`ConnectionError`, `TimeoutError`).
    """

    max_payload: int
    """Bytes of the largest payload the engine carries; known once connected."""

    async def connect(self, receive: Receive, lost: Lost) -> None:
        """Open a connection, with no subscriptions.

        ``lost`` is called when it ends in any way but `close`, the engine's cutting off a subscriber that fell
        behind included. ``receive`` is not called before a first `subscribe`, nor after ``lost`` or `close`.

        Raises:
            OSError: there is no engine, or it lets nobody in.
        """

    async def subscribe(self, topics: Collection[str]) -> None:
        """Receive what is published to these topics, by whichever connection, this one included.

        When it returns, the engine has confirmed it: everything published from then on is received, once, and in the
        order in which each publisher published it, across all of its topics. Harmless for topics subscribed to already.
        """

    async def unsubscribe(self, topics: Collection[str]) -> None:
        """Receive no more of these topics: nothing of what is published once it has returned. Harmless for others."""

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish to topics, in this order; when it returns, the engine has taken all of them.

        Where it raises, each of them may have been carried, or not.
        """

    async def close(self) -> None:
        """End the connection, within a second. Harmless when there is none; `connect` works again after it."""

    def release(self) -> None:
        """Give back what outlives a connection, where there is such a thing: it is closed, and not used any more."""
