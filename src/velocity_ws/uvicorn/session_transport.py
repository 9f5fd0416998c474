"""Session transport: a broker's session on a WebSocket of uvicorn's. Knows no handshake's bytes and no message's event.

A session gets its messages without an ASGI event, a queue or a task for each, and sends frames that are built once for
everyone.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from typing import NoReturn

from starlette.types import Message
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState

from velocity_ws.asgi.transport import ASGICall, acceptance, send_refusal
from velocity_ws.close import Close, restarting
from velocity_ws.delivery.transport_outbox import TransportOutbox
from velocity_ws.errors import Reject
from velocity_ws.sessions.context import NodeContext
from velocity_ws.sessions.session import Session
from velocity_ws.sessions.transport import RawHeaders
from velocity_ws.settings import Settings
from velocity_ws.uvicorn.proxies import trusts
from velocity_ws.uvicorn.state import WebSocketState
from velocity_ws.websocket.connection import WebSocketConnection

__all__ = ["NO_CALL", "SessionTransport"]


async def _nowhere(message: Message | None = None) -> NoReturn:  # noqa: ARG001 - ASGI's signature
    """
    Raises:
        ClientDisconnected: always.
    """
    raise ClientDisconnected


NO_CALL: ASGICall = ({}, _nowhere, _nowhere)
"""Stands for an endpoint's call before there is one, and after the handshake is answered or its connection gone."""


class SessionTransport(WebSocketConnection):
    """A WebSocket of a uvicorn server, as a broker's `Transport`.

    Attributes:
        accepted_at: loop time of the TCP accept, where the HTTP class tells.
        accepts_at_once: true, as the request has been read before the application is called.
        is_accepted: whether the handshake has been accepted.
        call: what a broker's endpoint was called with, from then on until the handshake is answered.
    """

    __slots__ = (
        "_config", "_ended", "_session", "_shared", "_terms", "accepted_at", "call", "is_accepted",
    )  # fmt: skip

    def __init__(self, config: Config, server_state: ServerState, loop: asyncio.AbstractEventLoop | None) -> None:
        self._shared = shared = WebSocketState.of(server_state, config, loop)
        self._terms = terms = shared.terms
        super().__init__(shared.loop, shared.parsers, shared.closing, terms.max_size, terms.unfinished)
        self._config = config
        self._session: Session | None = None
        self._ended: asyncio.Future[Close] | None = None
        self.is_accepted = False
        self.accepted_at: float | None = None
        self.call = NO_CALL

    accepts_at_once = True

    @property
    def trusts_everyone(self) -> bool:
        """Whether the server believes any peer's word of the client's address."""
        return trusts(self._config)

    def configure(self, settings: Settings) -> None:
        """Apply a broker's settings, before the handshake is answered."""
        self._terms = terms = self._shared.of_broker(settings)
        self._parser.max_size = terms.max_size
        self._reader.unfinished = terms.unfinished
        self.transport.set_write_buffer_limits(high=settings.write_buffer_size)
        if settings.socket_send_buffer:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.socket_send_buffer)

    def begin(self) -> Awaitable[object]:
        """Take the event that the handshake begins with, which middleware sees."""
        _, receive, _ = self.call
        return receive()

    def accept(self, subprotocol: str | None, headers: RawHeaders) -> Awaitable[object]:
        """Accept the handshake by an event, which middleware sees."""
        _, _, send = self.call
        return send(acceptance(subprotocol, headers))

    async def refuse(self, reject: Reject, subprotocol: str | None) -> None:
        """Refuse the handshake by events, which middleware sees."""
        scope, _, send = self.call
        await send_refusal(scope, send, reject, subprotocol)

    def open(self, session: Session, context: NodeContext[Session]) -> TransportOutbox:
        """Feed a session from now on, and send what its outbox, which this returns, is given."""
        settings = context.settings
        self.call = NO_CALL
        self._session = session
        session.inbox.source = self._reader
        self._outbox = TransportOutbox(
            self._writer,
            session,
            context.counters,
            context.flusher,
            window_bits=self._window_bits,
            burst=settings.write_buffer_size,
            limit=settings.send_queue_size,
            drop=settings.slow_client == "drop",
        )
        self._reader.open()
        return self._outbox

    def wait_closed(self) -> asyncio.Future[Close]:
        """Wait until the connection has ended; return how."""
        # A coroutine that awaits this would be there for as long as the connection is.
        ended = self._ended = self._loop.create_future()
        if self._end is not None:
            ended.set_result(self._end)
        return ended

    def go_away(self, retry_after: float, patience: float) -> None:
        """Send a close frame after what is queued; what the client sends until it answers is still handled.

        Args:
            retry_after: seconds after which the client should come back.
            patience: seconds that what runs for it may take before.
        """
        code, reason = restarting(self._terms.restart_code, retry_after)
        if self._session is not None:
            self._session.close((code, reason), handle="all", patience=patience)
        elif self.is_accepted:
            self._writer.send_close(code, reason)

    def got_stuck(self) -> None:
        """Watch the peer: nothing is read for now, so its end would not be noticed."""
        self._shared.peers.add(self)

    def _tell_end(self, close: Close) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(close)
