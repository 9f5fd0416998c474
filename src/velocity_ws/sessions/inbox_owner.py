"""InboxOwner: what an inbox needs of its session. Knows no message that waits, and no transport."""

from __future__ import annotations

from typing import Protocol

from velocity_ws.close import Goodbye
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.client import Client

__all__ = ["InboxOwner"]


class InboxOwner(Protocol):
    """The session of an inbox. On the broker's loop only."""

    @property
    def client(self) -> Client:
        """The client that sends."""

    def offer(self, message: PreparedMessage) -> bool:
        """Queue an answer for the client; return whether it was queued."""

    def close(self, goodbye: Goodbye, *, discard: bool = False, within: float | None = None) -> None:
        """Close the connection, for what was sent or came of it."""

    def all_handled(self) -> None:
        """Nothing is being handled any more, or only what others do not wait for."""

    def handling_failed(self, error: BaseException) -> None:
        """Nor will it be: what handles messages has failed, or was cancelled."""
