"""Backplane: the contract of one connection to an engine that carries bytes between nodes.

Knows neither rooms nor clients. A backplane only carries: its user decides when to connect again, and nothing is sent
again after a failure. `velocity_ws.testing` has the suite that every backplane passes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol, runtime_checkable

__all__ = ["Backplane", "Leaving", "Lost", "Moving", "Receive"]

Receive = Callable[[str, bytes], None]
"""Called on the loop with a topic and the bytes that were published to it. Neither waits nor raises."""
Lost = Callable[[Exception], None]
"""Called on the loop with the reason, once, when a connection has ended by itself; perhaps with `Leaving` before."""


class Leaving(ConnectionError):
    """Why a connection shall be left, which carries all that it did until then: its server is about to go.

    Its user hands over nothing more, waits for what it has handed over, closes it, and connects again, at once: there
    is another server.
    """


class Backplane(Protocol):
    """One connection to an engine, opened, closed and opened again by its user. On the broker's loop only.

    Topics are strings of 1 to 250 of the characters ``A-Z a-z 0-9 . _ - = ~``, separated by single dots; payloads are
    any bytes. ``subscribe`` and ``unsubscribe`` are called one at a time, and so is ``publish``; the two kinds overlap.
    When one of them raises, or is cancelled because it took too long, the user closes the connection.
    Errors of the engine and the network are raised as ``OSError`` (``ConnectionError``, ``TimeoutError``).
    """

    max_payload: int
    """Bytes of the largest payload the engine carries; known once connected.

    A backplane may also have a ``server_id``: what names the server of its connection, and no other one, nor the same
    after a restart. Without it, or where it is empty, nodes do not know whether they were on one server.

    And it may have an ``is_routed``: whether its server tells others of a subscription only after it has confirmed it,
    on the way by which it passes messages on. Nodes ask each other then before they rely on it.
    """

    async def connect(self, receive: Receive, lost: Lost) -> None:
        """Open a connection, with no subscriptions.

        Args:
            receive: takes what is published to the topics that are subscribed to. It is not called before a first
                `subscribe`, nor after ``lost`` or `close`.
            lost: called when the connection ends in any way but `close`, also when the engine cuts it off because it
                fell behind; and with ``Leaving`` where it is better left.

        Raises:
            OSError: there is no engine, or it refuses the login.
        """

    async def subscribe(self, topics: Collection[str]) -> None:
        """Receive what is published to these topics by any connection, this one included.

        When it returns, the engine has confirmed it: everything published from then on is received, once, and in the
        order in which each publisher published it, across all of its topics. Harmless for topics subscribed to already.

        Raises:
            OSError: the engine did not confirm it.
        """

    async def unsubscribe(self, topics: Collection[str]) -> None:
        """Receive nothing more of these topics that is published once it has returned. Harmless for other topics.

        Raises:
            OSError: the engine did not confirm it.
        """

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish messages in this order; when it returns, the engine has taken all of them.

        Args:
            messages: topics and payloads.

        Raises:
            OSError: each of them may have been carried, or not.
        """

    async def close(self) -> None:
        """End the connection, within a second. Harmless when there is none; `connect` works again after it."""

    def release(self) -> None:
        """Give back what outlives a connection, where there is such a thing. Called after the last `close`."""


@runtime_checkable
class Moving(Protocol):
    """What a backplane may have beside: it follows topics from one server to another, and its connection goes on.

    Attributes:
        on_missed: set by the user. Called on the loop with topics that are subscribed to again, and on which something
            may not have been received for a moment before that; and, perhaps with none, when a server is left.
    """

    on_missed: Callable[[Collection[str]], None]
