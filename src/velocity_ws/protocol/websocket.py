"""WebSocketProtocol: one connection, from the upgrade to its end. Wires the parts of this package to the transport.

Knows uvicorn, and no hub and no hook. It serves any ASGI application; a broker's gets its messages without an event, a
queue or a task for each, and sends frames that are built once for everyone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected, get_client_addr, get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from velocity_ws.carrier import EXTENSION
from velocity_ws.direct import Flusher, TransportOutbox
from velocity_ws.errors import Close, CloseCode
from velocity_ws.framing import TEXT
from velocity_ws.limits import RateLimiter
from velocity_ws.messages import Frame
from velocity_ws.protocol.common import Common
from velocity_ws.protocol.events import Events, RawHeaders
from velocity_ws.protocol.handshake import Handshake, RequestReader
from velocity_ws.protocol.library import Heard, Library
from velocity_ws.protocol.reader import Reader
from velocity_ws.protocol.writer import Writer
from velocity_ws.session import Session
from velocity_ws.settings import Settings
from velocity_ws.stats import Counters

__all__ = ["WebSocketProtocol"]

DRAIN_TIMEOUT = 10.0
"""Seconds a stopping server gives the connections of an application that has no WS_DRAIN_TIMEOUT."""
CONTROL_FRAMES = 500
"""Pings and pongs a second that a client may send in the long run; beyond, it is closed (1008)."""
CONTROL_FRAMES_AT_ONCE = 5000
"""The same at once."""

log = logging.getLogger("uvicorn.error")


class WebSocketProtocol(asyncio.Protocol):
    """A uvicorn WebSocket class (``--ws``): an ASGI server for one connection, and a `Carrier` for a broker.

    Attributes:
        accepted_at: loop time of the TCP accept, where the HTTP class tells.
        on_lost: called once when the connection is gone.
        transport: the connection's.
        is_accepted: whether the handshake has been accepted.
    """

    __slots__ = (
        "_app_state", "_common", "_config", "_controls", "_deflate", "_drain_timeout", "_end", "_ended", "_events",
        "_handshake", "_held_back", "_keepalive", "_library", "_loop", "_outbox", "_ping_interval", "_ping_timeout",
        "_reader", "_request", "_scope", "_session", "_state", "_writer", "accepted_at", "is_accepted", "on_lost",
        "transport",
    )  # fmt: skip

    transport: asyncio.Transport
    _writer: Writer

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        loop = self._loop = _loop or asyncio.get_running_loop()
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._common = Common.of(server_state, loop)
        self._deflate = config.ws_per_message_deflate
        self._ping_interval = config.ws_ping_interval
        self._ping_timeout = config.ws_ping_timeout
        self._drain_timeout = float(config.timeout_graceful_shutdown or DRAIN_TIMEOUT)
        self._library = Library(self._common.lender, config.ws_max_size)
        self._reader = Reader(self, self._library, loop)
        self._events = Events(self, loop)
        self._request: RequestReader | None = None
        self._handshake: Handshake | None = None
        self._scope: Scope = {}
        self._session: Session | None = None
        self._outbox: TransportOutbox | None = None
        self._end: Close | None = None
        self._ended: asyncio.Future[Close] | None = None
        self._held_back: list[bytes] | None = None
        self._controls: RateLimiter | None = None
        self._keepalive: asyncio.TimerHandle | None = None
        self.accepted_at: float | None = None
        self.on_lost: Callable[[], None] | None = None
        self.is_accepted = False

    # --- what the event loop and the HTTP class call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The HTTP side hands over the connection."""
        self.transport = transport  # type: ignore[assignment]
        self._writer = Writer(self.transport, self._library, self._loop)
        self._state.connections.add(self)  # type: ignore[arg-type]

    def upgraded(self, path: bytes, headers: RawHeaders) -> None:
        """The HTTP side hands over the parsed request.

        Args:
            path: with the query.
            headers: with names in lower case.
        """
        handshake = self._handshake = Handshake(self._common.judge, path, headers)
        if self._common.drain.is_on:
            self.refuse(503, [], b"the server is restarting")
        elif not handshake.is_valid:
            self._writer.write(handshake.refusal())
            self._writer.close_transport()
        else:
            scope = self._scope = handshake.scope(
                self._config,
                scheme="wss" if is_ssl(self.transport) else "ws",
                server=get_local_addr(self.transport),
                client=get_remote_addr(self.transport),
                state=self._app_state.copy(),
                extensions={"websocket.http.response": {}, EXTENSION: self},
            )
            task = self._loop.create_task(self._run(scope))
            self._state.tasks.add(task)
            task.add_done_callback(self._state.tasks.discard)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client; from an HTTP class that does not know `upgraded`, first the request."""
        if self.is_accepted or self._handshake is not None or self._end is not None:
            self._reader.feed(data)
            return
        if self._request is None:
            self._request = RequestReader()
        found = self._request.feed(data)
        if found is not None:
            self._request = None
            self.upgraded(*found)
        elif replies := self._request.refusal():
            self._writer.write_all(replies)

    def eof_received(self) -> None:
        """The client will send nothing more; the transport closes."""

    def pause_writing(self) -> None:
        """The transport is above its high-water mark."""
        self._writer.is_paused = True
        if self._outbox is not None:
            self._outbox.pause()

    def resume_writing(self) -> None:
        """The transport has room again."""
        self._writer.resume()
        if self._outbox is not None:
            self._outbox.resume()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The connection is gone."""
        self._state.connections.discard(self)
        if self._keepalive is not None:
            self._keepalive.cancel()
        self._reader.stop()
        self._writer.lost()
        self._finish(Close(CloseCode.ABNORMAL, "", "network"))
        if self.on_lost is not None:
            self.on_lost()

    def shutdown(self) -> None:
        """The server is stopping: uvicorn calls this for each connection, and waits for them to be gone."""
        if self.is_accepted:
            self._common.drain.add(self, self._drain_timeout)
        else:
            self.refuse(503, [], b"the server is restarting")

    # --- draining

    def go_away(self, retry_after: float) -> None:
        """Say goodbye after what is queued; what the client sends until it answers is still handled."""
        reason = f"restarting, retry_after={retry_after:.3f}"
        if self._session is not None:
            self._session.restart(CloseCode.SERVICE_RESTART, reason)
        else:
            self._writer.send_close(CloseCode.SERVICE_RESTART, reason)

    def cut(self) -> None:
        """End at once, what the broker runs for it included."""
        if self._session is not None:
            self._session.cut()
        self._writer.abort()

    # --- the handshake's answer

    def accept(self, subprotocol: str | None, headers: RawHeaders) -> None:
        """Accept the handshake.

        Raises:
            OSError: the client has gone.
        """
        handshake = self._handshake
        if handshake is None or self._end is not None or self.transport.is_closing():
            raise ClientDisconnected
        more = [*self._state.default_headers, *headers]
        response, self._library.window = handshake.accept(subprotocol, more, deflate=self._deflate)
        self._handshake = None
        self.is_accepted = True
        self.transport.write(response)
        self._log_line("[accepted]")
        self._schedule_ping()
        self._reader.open()

    def refuse(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Refuse the handshake, if it has not been answered."""
        handshake, self._handshake = self._handshake, None
        if handshake is None or self._end is not None:
            return
        self._log_line(str(status))
        self._writer.write(handshake.refuse(status, headers, body))
        self._finish(Close(CloseCode.ABNORMAL, "", "server"))
        self._reader.stop()
        self._writer.close_transport()

    def _log_line(self, what: str) -> None:
        if self._scope and log.isEnabledFor(logging.INFO):
            # Without the query: browsers have no other place for a token.
            log.info('%s - "WebSocket %s" %s', get_client_addr(self._scope), self._scope["path"], what)  # type: ignore[arg-type]

    # --- what was read

    def got_message(self, opcode: int, payload: bytes) -> bool:
        """A message; whether no more can be taken for now."""
        text = ""
        if opcode & TEXT:
            try:
                text = payload.decode()
            except UnicodeDecodeError:
                self._fail(CloseCode.INVALID_PAYLOAD, "invalid UTF-8")
                return False
        if self._session is not None:
            return self._session.feed(text if opcode & TEXT else payload)
        return self._events.put(opcode & ~0x40, payload, text)

    def got_frame(self, data: bytes) -> bool:
        """A frame for the library; whether no more can be taken for now."""
        heard = self._library.receive(data)
        is_full = False
        for opcode, payload in heard.messages:
            is_full = self.got_message(opcode, payload)
        if heard.pings or heard.pongs:
            self._count_control(heard.pings + len(heard.pongs))
        for payload in heard.pongs:
            self._writer.pong(payload)
        if heard.close is None:
            for reply in heard.replies:
                self._writer.answer_ping(reply)
            return is_full
        self._heard_the_end(heard, heard.close)
        return False

    def got_too_long(self) -> None:
        """A message is longer than allowed."""
        close = Close(CloseCode.MESSAGE_TOO_BIG, "message too big", "server")
        self._heard_the_end(Heard(replies=self._library.fail(close.code, close.reason)), close)

    def _heard_the_end(self, heard: Heard, close: Close) -> None:
        self._reader.stop()
        has_unread = self._events.has_unread
        self._finish(close)
        if close.by == "server" and has_unread:
            # What came before the error is answered before the close frame is written.
            self._events.has_last_words = True
            self._held_back = heard.replies
            self._writer.close_in_time()
        else:
            self._flush()
            self._writer.write_all(heard.replies)

    def _count_control(self, count: int) -> None:
        if self._controls is None:
            self._controls = RateLimiter(CONTROL_FRAMES, CONTROL_FRAMES_AT_ONCE, self._loop.time)
        for _ in range(count):
            if self._controls.acquire() and self._library.is_open:
                self._fail(CloseCode.POLICY_VIOLATION, "too many pings")

    # --- what an application's events ask for

    @property
    def is_sendable(self) -> bool:
        """Whether messages can be sent: open, on both sides."""
        return self._end is None and self._library.is_open

    async def writable(self) -> None:
        """Wait until the transport has room, or the connection ends."""
        if self._end is None:
            await self._writer.room()

    def write_message(self, frame: Frame) -> None:
        """Send a message."""
        self._writer.write(frame.wire(self._window_bits))

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, and let the application receive no more."""
        self._finish(Close(code, reason, "server"))
        self._writer.send_close(code, reason)

    def resume_reading(self) -> None:
        """There is room for more messages."""
        self._reader.resume()

    def say_last_words(self) -> None:
        """Write what was held back until the application had read everything."""
        if self._held_back is not None:
            replies, self._held_back = self._held_back, None
            self._writer.write_all(replies)

    # --- the end

    def _flush(self) -> None:
        """Write what the client is still to get before the close frame."""
        if self._outbox is not None:
            self._outbox.flush()

    @property
    def _window_bits(self) -> int:
        return 0 if self._library.window is None else self._library.window.local_bits

    def _fail(self, code: int, reason: str) -> None:
        self._reader.stop()
        self._finish(Close(code, reason, "server"))
        self._flush()
        self._writer.write_all(self._library.fail(code, reason))

    def _finish(self, close: Close) -> None:
        """Tell who gets the messages that there are no more; the first to say why is right."""
        if self._end is None:
            self._end = close
            if self._ended is not None and not self._ended.done():
                self._ended.set_result(close)
            self._events.end(close)
            self._writer.wake()

    # --- keepalive

    def _schedule_ping(self) -> None:
        self._keepalive = self._loop.call_later(self._ping_interval, self._keep_alive) if self._ping_interval else None

    def _keep_alive(self) -> None:
        if not self._library.is_open or self.transport.is_closing():
            return
        payload = self._writer.pings.send()
        if self._ping_timeout:
            self._keepalive = self._loop.call_later(self._ping_timeout, self._check_pong, payload)
        else:
            self._schedule_ping()

    def _check_pong(self, payload: bytes) -> None:
        is_missing = self._writer.pings.forget(payload)
        # While we do not read, the pong may be among what is not read.
        if is_missing and not self._reader.is_waiting and self._library.is_open:
            self._finish(Close(CloseCode.ABNORMAL, "", "network"))
            self._writer.peer_is_dead()
        else:
            self._schedule_ping()

    # --- a broker's session

    def configure(self, settings: Settings) -> None:
        """Apply a broker's settings, before the handshake is accepted."""
        self._library.max_size = settings.max_message_size
        self._deflate = settings.enable_compression
        self._ping_interval = settings.ping_interval or None
        self._ping_timeout = settings.ping_timeout
        self._drain_timeout = min(self._drain_timeout, settings.drain_timeout)
        self.transport.set_write_buffer_limits(high=settings.write_buffer_size)

    def take(self, session: Session, settings: Settings, counters: Counters, flusher: Flusher) -> TransportOutbox:
        """Feed a session from now on, and send what it sends."""
        self._session = session
        session.on_room = self._reader.resume
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
        return self._outbox

    async def closed(self) -> Close:
        """Wait until the connection has ended; how."""
        if self._end is None:
            self._ended = self._loop.create_future()
            await self._ended
        return self._end or Close(CloseCode.ABNORMAL, "", "network")

    # --- the application

    async def _run(self, scope: Scope) -> None:
        try:
            await self._config.loaded_app(scope, self._events.receive, self._events.send)
        except ClientDisconnected:
            log.debug("the application sent to a client that had gone")
        except Exception:
            log.exception("Exception in ASGI application\n")
            self.refuse(500, [], b"Internal Server Error")
            self._writer.send_close(CloseCode.INTERNAL_ERROR, "")
        else:
            if not self.is_accepted and self._end is None:
                log.error("ASGI callable returned without completing handshake.")
                self.refuse(500, [], b"Internal Server Error")
            self._writer.send_close(CloseCode.NORMAL, "")
        finally:
            self._session = self._outbox = None
