"""Transport: what a session needs of the connection that carries it. Knows no server, no ASGI and no WebSocket.

A transport carries one client. Its calls come in this order, all of them in one task on the broker's loop:

1. `Transport.configure`, before anything is decided.
2. `Transport.begin`. Where the node cannot be started, it is the first call, and `Transport.refuse` the second.
3. `Transport.accept` or `Transport.refuse`. `Transport.refuse` also follows a `Transport.begin` or a `Transport.accept`
   that did not return within the deadline of the handshake.
4. `Transport.open`, if it was accepted, and after that ``session.open`` with what it returned.
5. `Transport.wait_closed`, whose result is told to the ``on_disconnect`` hooks.

That task is cancelled where the connection is to end at once (``session.abort``), and may be cancelled by the server at
any time. Then nothing more is called, and the transport lets go of what it holds.

What every transport guarantees:

- Messages reach ``session.inbox.feed`` in the order in which they were sent: none before or in `Transport.open`, as the
  session is opened after it, and none after `Transport.wait_closed` has returned. Once ``feed`` has returned true,
  nothing is fed until the inbox tells its ``source``, or its ``room()`` returns: the client has to wait, and nothing
  is queued without a bound.
- The outbox is bounded in bytes, as `velocity_ws.delivery.outbox.Outbox` says. Closing it leads to the end that
  `Transport.wait_closed` waits for; where a send fails, its owner is told.
- A connection that breaks, from whichever side, ends `Transport.wait_closed` exactly once.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from velocity_ws.close import Close
from velocity_ws.delivery.outbox import Outbox
from velocity_ws.errors import Reject
from velocity_ws.sessions.context import NodeContext
from velocity_ws.sessions.session import Session
from velocity_ws.settings import Settings

__all__ = ["RawHeaders", "Transport"]

RawHeaders = list[tuple[bytes, bytes]]


class Transport(Protocol):
    """Carries one client's messages. On the broker's loop only.

    Attributes:
        accepted_at: loop time, in seconds, at which the client connected, from which the deadline of its handshake
            counts; ``None`` where it is not known.
        accepts_at_once: whether neither `begin` nor `accept` waits, so that they need no deadline.
    """

    accepted_at: float | None
    accepts_at_once: bool

    @property
    def trusts_everyone(self) -> bool:
        """Whether the server takes any peer's word for the client's address."""

    def configure(self, settings: Settings) -> None:
        """Apply the settings of the connection itself: sizes, compression, pings."""

    def begin(self) -> Awaitable[object]:
        """Wait until the client's request is there to be answered.

        Raises:
            OSError: the client has gone.
        """

    def accept(self, subprotocol: str | None, headers: RawHeaders) -> Awaitable[object]:
        """Tell the client that it may come in.

        Args:
            subprotocol: which of those it offered was selected; a transport without subprotocols ignores it.
            headers: to send with the answer, names in lower case; none of them is the handshake's own.

        Raises:
            OSError: the client has gone.
        """

    async def refuse(self, reject: Reject, subprotocol: str | None) -> None:
        """Tell the client that it may not come in, in the best form there is; the connection is over then.

        Args:
            reject: the reason, with the status or the close code.
            subprotocol: to select where the form needs an accepted connection, as a close code does.

        Raises:
            OSError: the client has gone.
        """

    def open(self, session: Session, context: NodeContext[Session]) -> Outbox:
        """Begin to carry messages.

        Args:
            session: is fed what arrives, and owns the outbox.
            context: has what an outbox needs: the settings of its bounds, the counters, the flusher.

        Returns:
            The outbox whose messages are sent to the client.
        """

    def wait_closed(self) -> Awaitable[Close]:
        """Wait until the connection has ended, from either side; return how."""
