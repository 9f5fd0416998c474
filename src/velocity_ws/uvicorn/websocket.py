"""WebSocketProtocol: uvicorn's WebSocket class: the handshake, the application, the server's end.

Knows uvicorn, and no hub and no hook. It serves any ASGI application; a broker's gets its messages without an event, a
queue or a task for each, and sends frames that are built once for everyone.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import urllib.parse
from collections.abc import Callable
from typing import Any

from starlette.types import Message, Scope, Send
from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.utils import ClientDisconnected, get_client_addr, get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from velocity_ws.asgi.transport import EXTENSION, send_refusal
from velocity_ws.close import Close, CloseCode
from velocity_ws.delivery.transport_outbox import Flusher, TransportOutbox
from velocity_ws.errors import Reject
from velocity_ws.logs import printable, quote_exception
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.session import Session
from velocity_ws.settings import Settings
from velocity_ws.stats import Counters
from velocity_ws.uvicorn.common import Common
from velocity_ws.uvicorn.events import Events, RawHeaders
from velocity_ws.uvicorn.shared import count_refusal, is_stopping, refuse_handshakes
from velocity_ws.websocket.connection import WebSocketConnection
from velocity_ws.websocket.handshake import Handshake, RequestReader

__all__ = ["WebSocketProtocol"]

DRAIN_TIMEOUT = 10.0
"""Seconds a stopping server gives the connections of an application that has no WS_DRAIN_TIMEOUT."""

LOW_WATER = 16 * 1024
"""Bytes up to which a transport takes more again, unless somebody has changed that."""

_Address = tuple[str, int | None]

log = logging.getLogger("uvicorn.error")
log.addFilter(quote_exception)  # an application's may say what a stranger sent


class WebSocketProtocol(WebSocketConnection):
    """A uvicorn WebSocket class (``--ws``): an ASGI server for one connection, and a broker's `Transport`.

    Attributes:
        accepted_at: loop time of the TCP accept, where the HTTP class tells.
        answer: the ``send`` that a broker answers the handshake with.
        on_lost: called once when the connection is gone.
        is_accepted: whether the handshake has been accepted.
    """

    __slots__ = (
        "_app_state", "_common", "_config", "_deflate", "_drain_timeout", "_ended", "_events", "_handshake",
        "_is_lost", "_request", "_restart_code", "_scope", "_session", "_state", "_task", "_waits_for_session",
        "accepted_at", "answer", "is_accepted", "on_lost",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        loop = _loop or asyncio.get_running_loop()
        self._common = Common.of(server_state, config, loop)
        super().__init__(loop, self._common.parsers, config.ws_max_size, self._common.usual)
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._deflate = config.ws_per_message_deflate
        self._drain_timeout = float(config.timeout_graceful_shutdown or DRAIN_TIMEOUT)
        self._restart_code = int(CloseCode.SERVICE_RESTART)
        self._events = Events(self, loop)
        self._request: RequestReader | None = None
        self._handshake: Handshake | None = None
        self._scope: Scope = {}
        self._session: Session | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[Close] | None = None
        self.accepted_at: float | None = None
        self.answer: Send = _nobody
        self.on_lost: Callable[[], None] | None = None
        self._waits_for_session = False
        self._is_lost = False
        self.is_accepted = False

    # --- what the event loop and the HTTP class call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The HTTP side hands over the connection."""
        super().connection_made(transport)
        self._state.connections.add(self)  # type: ignore[arg-type]

    def upgraded(
        self, path: bytes, headers: RawHeaders, server: _Address | None = None, client: _Address | None = None
    ) -> None:
        """The HTTP side hands over the parsed request.

        Args:
            path: with the query.
            headers: with names in lower case.
            server: the connection's own address, where it is known already.
            client: the peer's.
        """
        handshake = self._handshake = Handshake(self._common.negotiator, path, headers)
        if self.transport.get_write_buffer_size() > LOW_WATER:
            # A response that was not read. That the transport is paused was told to the HTTP class, not to this one.
            self.refuse_handshake(400, [], b"read the response before you ask for a WebSocket")
        elif is_stopping(self._state):
            self.refuse_handshake(503, [], b"the server is restarting")
        elif not handshake.is_valid:
            self._turn_away(handshake.refusal())
        else:
            scope = self._scope = handshake.scope(
                root_path=self._config.root_path,
                asgi_version=self._config.asgi_version,
                scheme="wss" if is_ssl(self.transport) else "ws",
                server=server or get_local_addr(self.transport),
                client=client or get_remote_addr(self.transport),
                state=self._app_state.copy(),
                extensions={"websocket.http.response": {}, EXTENSION: self},
            )
            task = self._task = self._loop.create_task(self._run(scope))
            self._state.tasks.add(task)
            task.add_done_callback(self._state.tasks.discard)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client; from an HTTP class that does not know `upgraded`, first the request."""
        if self.is_accepted or self._handshake is not None or self._end is not None:
            if self._reader.is_over:
                self._writer.discard(len(data))
            else:
                self._reader.feed(data)
            return
        if self._request is None:
            self._request = RequestReader()
        found = self._request.feed(data)
        if found is not None:
            self._request = None
            self.upgraded(*found)
        elif replies := self._request.refusal():
            count_refusal(self._state)
            self._writer.write_all(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._state.connections.discard(self)
        self._common.watch.remove(self)
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()
        self._is_lost = True
        self._release()

    def shutdown(self) -> None:
        """The server is stopping: uvicorn calls this for each connection, and waits for them to be gone."""
        refuse_handshakes(self._state)
        self.refuse_handshake(503, [], b"the server is restarting")
        if self._common.latecomers is not None:
            self._common.latecomers.answer()
        self._common.drain.add(self, self._drain_timeout)

    # --- draining

    def go_away(self, retry_after: float, patience: float) -> None:
        """Say goodbye after what is queued; what the client sends until it answers is still handled."""
        reason = f"restarting, retry_after={retry_after:.3f}"
        if self._session is not None:
            self._session.restart(self._restart_code, reason, patience)
        elif self.is_accepted:
            self._writer.send_close(self._restart_code, reason)

    def cut(self) -> None:
        """End at once, what runs for it included."""
        if self._session is not None:
            self._session.cut()
        elif self._task is not None:
            self._task.cancel()
        self._writer.abort(even_if_closing=True)

    # --- the handshake's answer

    def accept_handshake(self, subprotocol: str | None, headers: RawHeaders) -> None:
        """Accept the handshake.

        Raises:
            OSError: the client has gone.
        """
        handshake = self._handshake
        if handshake is None or self._end is not None or self.transport.is_closing():
            raise ClientDisconnected
        more = [*self._state.default_headers, *headers]
        response, self._parser.window = handshake.accept(subprotocol, more, deflate=self._deflate)
        self._handshake = None
        self.is_accepted = True
        self.transport.write(response)
        self._log_line("[accepted]")
        if not self._waits_for_session:
            self._keepalive = self._common.keepalive(self._config.ws_ping_interval, self._config.ws_ping_timeout)
            self._reader.open()
        if self._keepalive is not None:
            self._keepalive.add(self)

    def refuse_handshake(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Refuse the handshake, if it has not been answered.

        Raises:
            ValueError: there is no such status, or a header would break out of its line.
        """
        handshake = self._handshake
        if handshake is None or self._end is not None:
            return
        response = handshake.refuse(status, headers, body)  # or it raises, and is still to be answered
        self._handshake = None
        self._log_line(str(status))
        self._turn_away(response)

    def _turn_away(self, response: bytes) -> None:
        if self._task is None:  # else it is the application that refuses, and counts
            count_refusal(self._state)
        self._writer.write(response)
        self._finish(Close(CloseCode.ABNORMAL, "", "server"))
        self._reader.stop()
        self._writer.close_transport()

    def _log_line(self, what: str) -> None:
        if self._scope and log.isEnabledFor(logging.INFO):
            # Without the query: browsers have no other place for a token.
            address, path = get_client_addr(self._scope), urllib.parse.quote(self._scope["path"])  # type: ignore[arg-type]
            log.info('%s - "WebSocket %s" %s', printable(address), path, what)

    # --- what was read

    def _deliver(self, opcode: int, content: str | bytes) -> bool:
        if self._session is not None:
            return self._session.inbox.feed(content)
        return self._events.put(opcode, content)

    def _tell_end(self, close: Close) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(close)
        self._events.end(close)

    def _holds_end(self) -> bool:
        return self._events.hold_end()

    # --- what an application's events ask for

    @property
    def is_sendable(self) -> bool:
        """Whether messages can be sent: open, on both sides."""
        return self._end is None and self._parser.is_open

    async def writable(self) -> None:
        """Wait until the transport has room, or the connection ends."""
        if self._end is None:
            await self._writer.room()

    def write_message(self, frame: PreparedMessage) -> None:
        """Send a message."""
        self._writer.write(frame.wire(self._window_bits))

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, and let the application receive no more."""
        self._finish(Close(code, reason, "server"))
        self._writer.send_close(code, reason)
        self._reader.resume()  # up to the client's answer, however much it sent before

    def got_stuck(self) -> None:
        """Nothing is read for now: whether the peer is still there has to be looked at."""
        self._common.watch.add(self)

    def resume_reading(self) -> None:
        """There is room for more messages."""
        self._reader.resume()

    # --- a broker's transport

    accepts_at_once = True

    @property
    def trusts_everyone(self) -> bool:
        """Whether the server believes any peer's word of the client's address."""
        app = self._config.loaded_app
        return isinstance(app, ProxyHeadersMiddleware) and app.trusted_hosts.always_trust

    def configure(self, settings: Settings) -> None:
        """Apply a broker's settings, before the handshake is answered."""
        self._parser.max_size = settings.max_message_size
        self._reader.unfinished, self._keepalive = self._common.of_broker(settings)
        self._deflate = settings.enable_compression
        self._restart_code = settings.restart_code
        graceful = self._config.timeout_graceful_shutdown
        self._drain_timeout = min(settings.drain_timeout, math.inf if graceful is None else graceful)
        self._waits_for_session = True
        self.transport.set_write_buffer_limits(high=settings.write_buffer_size)
        if settings.socket_send_buffer:
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.socket_send_buffer)

    async def accept(self, subprotocol: str | None) -> None:
        """Accept the handshake by an event, which middleware sees."""
        await self.answer({"type": "websocket.accept", "subprotocol": subprotocol})

    async def refuse(self, reject: Reject, subprotocol: str | None) -> None:
        """Refuse the handshake by events, which middleware sees."""
        await send_refusal(self._scope, self.answer, reject, subprotocol)

    def open(self, session: Session, settings: Settings, counters: Counters, flusher: Flusher) -> TransportOutbox:
        """Feed a session from now on, and send what it sends."""
        self.answer = _nobody
        self._session = session
        session.inbox.on_room = self._reader.resume
        self._outbox = TransportOutbox(
            self._writer,
            session,
            counters,
            flusher,
            window_bits=self._window_bits,
            burst=settings.write_buffer_size,
            limit=settings.send_queue_size,
            drop=settings.slow_client == "drop",
        )
        self._reader.open()
        return self._outbox

    async def wait_closed(self) -> Close:
        """Wait until the connection has ended; how."""
        if self._end is None:
            self._ended = self._loop.create_future()
            await self._ended
        return self._end or Close(CloseCode.ABNORMAL, "", "network")

    # --- the application

    def _release(self) -> None:
        """Where nothing is left to happen, let go of what refers back here: all of it is freed at once, and not when
        the garbage collector comes, before which thousands of closed connections may wait."""
        if self._is_lost and self._task is None:
            self._reader.detach()
            self._events.release()
            self._scope, self.answer, self.on_lost = {}, _nobody, None

    async def _run(self, scope: Scope) -> None:
        try:
            await self._config.loaded_app(scope, self._events.receive, self._events.send)
        except ClientDisconnected:
            log.debug("the application sent to a client that had gone")
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                log.exception("Exception in ASGI application\n")
            self.refuse_handshake(500, [], b"Internal Server Error")
            self._writer.send_close(CloseCode.INTERNAL_ERROR, "")
            if not isinstance(error, Exception):
                raise
        else:
            if not self.is_accepted and self._end is None:
                log.error("ASGI callable returned without completing handshake.")
                self.refuse_handshake(500, [], b"Internal Server Error")
            self._writer.send_close(CloseCode.NORMAL, "")
        finally:
            self._reader.open()  # where a broker failed before it took the messages
            self._session = self._outbox = self._task = None
            self._events.abandon()
            self.say_last_words()
            self._reader.resume()
            self._release()


async def _nobody(message: Message) -> None:  # noqa: ARG001 - the handshake is answered, or its connection gone
    raise ClientDisconnected
