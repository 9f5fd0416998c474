"""The backplane of a single process: there is no other node, so there is nothing to carry."""

from __future__ import annotations

from velocity_ws.backplane.base import Receive
from velocity_ws.messages import Address, Frame

__all__ = ["MemoryBackplane"]


class MemoryBackplane:
    """``memory://``: one node alone."""

    async def start(self, receive: Receive) -> None:
        """Nothing to begin."""

    async def stop(self) -> None:
        """Nothing to end."""

    async def publish(self, address: Address, frame: Frame) -> None:
        """Nobody else to reach."""
