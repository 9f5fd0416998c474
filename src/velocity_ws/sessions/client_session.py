"""ClientSession: what a client needs of its session, and what replaces an ended one. Knows no hook and no task."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol

from velocity_ws.close import Goodbye
from velocity_ws.messages.inbound import Malformed, Message
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
    def is_told_of_rooms(self) -> bool:
        """Whether events that tell clients of their rooms are for no application to send. From any thread."""

    @property
    def is_dismissed(self) -> bool:
        """Whether this side has closed it, so that nothing more of it is handled."""

    def offer(self, message: PreparedMessage) -> bool:
        """Queue a message without waiting; return whether it was queued."""

    async def put(self, message: PreparedMessage | None, seconds: float) -> bool:
        """Wait until nothing else is queued, then queue a message; return whether it was queued.

        Args:
            message: the message; ``None`` only waits.
            seconds: how long to wait at most.

        Raises:
            TimeoutError: it took longer than ``seconds``.
        """

    async def ask(self, question_id: str, question: PreparedMessage, seconds: float) -> Message | Malformed | None:
        """Send a question, and wait for its answer; ``None`` where the client has gone.

        Raises:
            TimeoutError: it did not answer within ``seconds``, or reads so slowly that the question was dropped.
            BrokerError: too many questions to it are open.
        """

    def close(self, goodbye: Goodbye) -> None:
        """Close the connection once everything queued has been sent. No further message is handled."""

    async def ping(self) -> float | None:
        """Ping the client; return the round trip in seconds, or ``None`` if the server offers no pings."""

    async def set_user(self, user: Any, expires_at: datetime | None) -> None:
        """Give the client another user, or with ``None`` no user; see `Client.set_user`."""


class Gone:
    """Replaces the session of each client that has gone; one object serves all of them."""

    is_connected = False
    is_dismissed = True
    is_told_of_rooms = False
    rooms: frozenset[str] = frozenset()

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def offer(self, message: PreparedMessage) -> bool:  # noqa: ARG002 - nobody gets it
        """Count the message as dropped, and return false."""
        self._counters.dropped += 1
        return False

    async def set_user(self, user: Any, expires_at: datetime | None) -> None:
        """Do nothing, as the client has gone."""

    async def put(self, message: PreparedMessage | None, seconds: float) -> bool:  # noqa: ARG002 - nobody gets it
        """Count the message as dropped, and return false."""
        self._counters.dropped += message is not None
        return False

    async def ask(self, question_id: str, question: PreparedMessage, seconds: float) -> None:  # noqa: ARG002 - the same
        """Count the question as dropped, and return ``None``."""
        self._counters.dropped += 1

    def close(self, goodbye: Goodbye) -> None:
        """Do nothing, as the client has gone."""

    async def ping(self) -> float | None:
        """Return ``None``, as the client has gone."""
        return None
