"""What a client needs of its session, and what takes its place when that has ended. Knows no hook and no task."""

from __future__ import annotations

from typing import Any, Protocol

from velocity_ws.close import Goodbye
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.stats import Counters

__all__ = ["ClientSession", "Gone"]


class ClientSession(Protocol):
    """What a client needs of its session. On the broker's loop only."""

    @property
    def is_connected(self) -> bool:
        """Whether messages can still be sent."""

    @property
    def rooms(self) -> frozenset[str]:
        """The rooms the client is in."""

    @property
    def is_dismissed(self) -> bool:
        """Whether this side has closed it, so that nothing more of it is handled."""

    def offer(self, message: PreparedMessage) -> bool:
        """Queue a message without waiting; whether it was queued."""

    async def put(self, message: PreparedMessage | None, seconds: float) -> bool:
        """Queue a message once nothing else waits, or only wait; false where it has gone, `TimeoutError` in the end."""

    def close(self, goodbye: Goodbye) -> None:
        """Close after everything queued was sent; no further message is handled."""

    async def ping(self) -> float | None:
        """Round trip of a ping in seconds; ``None`` where the server offers no pings."""

    async def set_user(self, user: Any) -> None:
        """Make the client another user's, or with ``None`` nobody's; see `Client.set_user`."""


class Gone:
    """In place of the session of each client that has gone; one serves all of them."""

    is_connected = False
    is_dismissed = True
    rooms: frozenset[str] = frozenset()

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def offer(self, message: PreparedMessage) -> bool:  # noqa: ARG002 - nobody gets it
        """It is counted as dropped."""
        self._counters.dropped += 1
        return False

    async def set_user(self, user: Any) -> None:
        """Nothing: it has gone."""

    async def put(self, message: PreparedMessage | None, seconds: float) -> bool:  # noqa: ARG002 - nobody gets it
        """It is counted as dropped."""
        self._counters.dropped += message is not None
        return False

    def close(self, goodbye: Goodbye) -> None:
        """Nothing: it has gone."""

    async def ping(self) -> float | None:
        """Nobody answers."""
        return None
