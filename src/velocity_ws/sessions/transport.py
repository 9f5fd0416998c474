"""The seam of the fast path: what a server's own protocol class offers a session beyond ASGI. Knows no server.

It is found in ``scope["extensions"]`` under `EXTENSION`, which survives ``Mount`` and middleware.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from velocity_ws.close import Close
from velocity_ws.delivery.outbox import Outbox
from velocity_ws.delivery.transport_outbox import Flusher

if TYPE_CHECKING:
    from velocity_ws.sessions.session import Session
    from velocity_ws.settings import Settings
    from velocity_ws.stats import Counters

__all__ = ["EXTENSION", "Carrier"]

EXTENSION = "velocity_ws.carrier"


class Carrier(Protocol):
    """One connection whose messages need no ASGI events. Used on the loop it belongs to only."""

    accepted_at: float | None
    """Time, by the loop's clock, of the TCP accept; ``None`` where it is not known."""

    @property
    def trusts_everyone(self) -> bool:
        """Whether the server believes any peer's word of the client's address."""

    def configure(self, settings: Settings) -> None:
        """Apply the settings of the connection itself, before the handshake is accepted."""

    def take(self, session: Session, settings: Settings, counters: Counters, flusher: Flusher) -> Outbox:
        """Feed the session from now on what arrives, and send what its outbox, which this returns, is given."""

    async def closed(self) -> Close:
        """Wait until the connection has ended; how."""
