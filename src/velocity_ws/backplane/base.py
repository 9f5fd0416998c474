"""The contract of a backplane. It carries messages between nodes; who is in which room stays in each node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from velocity_ws.messages import Address, Frame

__all__ = ["Backplane", "Receive"]

Receive = Callable[[Address, Frame], object]


class Backplane(Protocol):
    """Carries messages to the other nodes. Every method is called on the broker's loop.

    A node delivers to its own clients by itself, before and whatever the backplane does: `publish` is for the
    others, and `start`'s ``receive`` is never called with what this node published.
    """

    async def start(self, receive: Receive) -> None:
        """Begin; from when this returns, ``receive`` is called, on the loop, with what other nodes publish."""

    async def stop(self) -> None:
        """End; ``receive`` is not called any more. Harmless when not started; `start` works again after it."""

    async def publish(self, address: Address, frame: Frame) -> None:
        """Hand a message to the other nodes, in the order of the calls, at most once."""
