"""WebSocketProtocol: a uvicorn WebSocket protocol class with shared frames. Knows uvicorn, and no hub and no hook.

``uvicorn app:app --ws velocity_ws.uvicorn:WebSocketProtocol``. It serves any ASGI application; a broker's gets its
messages without an event, a queue or a task for each, and sends frames that are built once for everyone. RFC 6455 and
RFC 7692 stay with the ``websockets`` library; only whole, plain, unfragmented messages are cut out here.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
import os
from collections import deque
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from starlette.types import Message, Scope
from uvicorn.config import Config
from uvicorn.protocols.utils import (
    ClientDisconnected,
    get_client_addr,
    get_local_addr,
    get_path_with_query_string,
    get_remote_addr,
    is_ssl,
)
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame as LibraryFrame
from websockets.frames import Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from velocity_ws.carrier import EXTENSION
from velocity_ws.direct import TransportOutbox
from velocity_ws.errors import Close, CloseCode
from velocity_ws.framing import TEXT, Cut, cut
from velocity_ws.messages import Frame
from velocity_ws.protocol.http import HTTPProtocol
from velocity_ws.session import Session
from velocity_ws.settings import Settings
from velocity_ws.stats import Counters

__all__ = ["HTTPProtocol", "WebSocketProtocol"]

WINDOW_BITS = 12
"""What is negotiated for compression: 4 KiB of history, and no context kept between messages in either direction."""
CLOSE_FRAME = 0x88
TURN = 64
"""What one connection may use up of a loop turn: 1 for a message cut out here, 4 for a frame of the library's."""
READ_AHEAD = 64 * 1024
"""Bytes of messages that may wait for an application that reads ASGI events."""
MAX_FRAGMENTS = 100_000
"""Frames of one message."""
MAX_EMPTY_FRAGMENTS = 128
"""Frames of one message that carry nothing."""
CLOSE_TIMEOUT = 10.0
"""Seconds until a connection that should be closing is cut."""


_library_log = logging.getLogger("velocity_ws.websockets")
# It would tell payloads and headers, tokens among them, at the levels below.
_library_log.setLevel(logging.ERROR)


class WebSocketProtocol(asyncio.Protocol):
    """One connection, from the upgrade to its end: an ASGI WebSocket server, and a `Carrier` for a broker."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._log = logging.getLogger("uvicorn.error")
        self._max_size = config.ws_max_size
        self._deflate = config.ws_per_message_deflate
        self._window_bits = 0  # of what was negotiated
        self._ping_interval = config.ws_ping_interval
        self._ping_timeout = config.ws_ping_timeout
        self._conn = ServerProtocol(max_size=config.ws_max_size, logger=_library_log)
        self._request: Request | None = None
        self._scope: Scope = {}
        self._denial: tuple[int, list[tuple[bytes, bytes]], list[bytes]] | None = None
        self.transport: asyncio.Transport
        # What was read and not yet handled, and what keeps it from being handled.
        self._tail = bytearray()
        self._lacks = 0
        self._is_open = False
        self._is_lost = False
        self._turn = 0.0
        self._budget = TURN
        self._is_waiting_for_turn = False
        self._fragments: bytearray | None = None
        self._fragment_counts = [0, 0]
        self._opcode = 0
        self._utf8: codecs.IncrementalDecoder | None = None
        # Writing.
        self.is_paused = False
        self._writable: asyncio.Future[None] | None = None
        self._pong: bytes | None = None
        # The end.
        self._end: Close | None = None
        self._deadline: asyncio.TimerHandle | None = None
        # A broker's session, or an application that reads ASGI events.
        self._session: Session | None = None
        self._outbox: TransportOutbox | None = None
        self._ended: asyncio.Future[Close] = self._loop.create_future()
        self._events: deque[Message] = deque([{"type": "websocket.connect"}])
        self._event_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._has_last_words = False
        # Pings.
        self._pings: dict[bytes, tuple[float, asyncio.Future[float] | None]] = {}
        self._keepalive: asyncio.TimerHandle | None = None

    # --- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The HTTP side hands over the connection."""
        self.transport = transport  # type: ignore[assignment]
        self._state.connections.add(self)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._tail or not self._is_open or self._is_waiting_for_turn:
            self._tail += data
            self._lacks -= len(data)
            if self._request is None:
                self._handshake()
            elif self._is_open and self._lacks <= 0 and not self._is_waiting_for_turn:
                data, self._tail = bytes(self._tail), bytearray()
                self._consume(data)
            elif not self._is_open and len(self._tail) > READ_AHEAD:
                self._sync_reading()
            return
        self._consume(data)

    def eof_received(self) -> None:
        """The client will send nothing more; the transport closes."""

    def pause_writing(self) -> None:
        """The transport is above its high-water mark."""
        self.is_paused = True

    def resume_writing(self) -> None:
        """The transport has room again."""
        self.is_paused = False
        if self._pong is not None:
            pong, self._pong = self._pong, None
            self.write(pong)
        if self._outbox is not None:
            self._outbox.resume()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The connection is gone."""
        self._is_lost = True
        self._state.connections.discard(self)
        for timer in (self._deadline, self._keepalive):
            if timer is not None:
                timer.cancel()
        self._finish(Close(CloseCode.ABNORMAL, "", "network"))
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        for _, waiter in self._pings.values():
            if waiter is not None and not waiter.done():
                waiter.set_exception(ClientDisconnected())
        self._pings.clear()

    def shutdown(self) -> None:
        """The server is stopping: say goodbye (1012), after what is queued."""
        if self._session is not None:
            self._session.disconnect(CloseCode.SERVICE_RESTART, "the server is restarting")
        elif self._is_open:
            self._finish(Close(CloseCode.SERVICE_RESTART, "", "server"))
            self.send_close(CloseCode.SERVICE_RESTART, "")
        else:
            self._refuse(500, [], b"Internal Server Error")
        self._close_in_time()

    # --- the handshake

    def _handshake(self) -> None:
        self._conn.receive_data(bytes(self._tail))
        self._tail.clear()
        events = self._conn.events_received()
        if not events or not isinstance(events[0], Request):
            self._flush()
            return
        self._request = request = events[0]
        response = self._conn.accept(request)
        if response.status_code != 101:
            self._conn.send_response(response)
            self._flush()
            self._close_in_time()
            return
        self._scope = self._make_scope(request)
        task = self._loop.create_task(self._run())
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _make_scope(self, request: Request) -> Scope:
        raw_path, _, query = request.path.partition("?")
        root_path = self._config.root_path
        names = request.headers.get_all("Sec-WebSocket-Protocol")
        return {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self.transport) else "ws",
            "server": get_local_addr(self.transport),
            "client": get_remote_addr(self.transport),
            "root_path": root_path,
            "path": root_path + unquote(raw_path),
            "raw_path": root_path.encode("ascii") + raw_path.encode("ascii"),
            "query_string": query.encode("ascii"),
            "headers": [(key.lower().encode("ascii"), _latin(value)) for key, value in request.headers.raw_items()],
            "subprotocols": [name.strip() for value in names for name in value.split(",")],
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}, EXTENSION: self},
        }

    def _accept(self, subprotocol: str | None, extra: Iterable[tuple[bytes, bytes]]) -> None:
        if self._request is None or self._end is not None or self.transport.is_closing():
            raise ClientDisconnected
        if self._deflate:
            self._conn.available_extensions = [
                ServerPerMessageDeflateFactory(
                    server_no_context_takeover=True,
                    client_no_context_takeover=True,
                    server_max_window_bits=WINDOW_BITS,
                    client_max_window_bits=WINDOW_BITS,
                )
            ]
        response = self._conn.accept(self._request)  # again, now that it is known what may be negotiated
        for extension in self._conn.extensions:
            if isinstance(extension, PerMessageDeflate):
                self._window_bits = extension.local_max_window_bits
        del response.headers["Date"]
        for name, value in [*self._state.default_headers, *extra]:
            response.headers[name.decode("latin-1")] = value.decode("latin-1")
        if subprotocol:
            response.headers["Sec-WebSocket-Protocol"] = subprotocol
        self._conn.send_response(response)
        self._flush()
        self._is_open = True
        self._log_line("[accepted]")
        self._schedule_ping()
        if self._tail:
            self._loop.call_soon(self._next_turn)

    def _refuse(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        if self._is_open or self._end is not None:
            return
        response = self._conn.reject(status, "")
        own = Headers([("Date", response.headers["Date"]), ("Connection", "close")])
        for name, value in headers:
            own[name.decode("latin-1")] = value.decode("latin-1")
        if "Content-Length" not in own:
            own["Content-Length"] = str(len(body))
        self._log_line(str(status))
        self._conn.send_response(Response(status, response.reason_phrase, own, body))
        self._flush()
        self._finish(Close(CloseCode.ABNORMAL, "", "server"))
        self._close_in_time()

    def _log_line(self, what: str) -> None:
        if self._log.isEnabledFor(logging.INFO):
            path = get_path_with_query_string(self._scope)  # type: ignore[arg-type]
            self._log.info('%s - "WebSocket %s" %s', get_client_addr(self._scope), path, what)  # type: ignore[arg-type]

    # --- reading

    def _consume(self, data: bytes) -> None:
        now = self._loop.time()
        if now != self._turn:
            self._turn, self._budget = now, TURN
        at, size = 0, len(data)
        while at < size and not self.transport.is_closing():
            if self._budget <= 0 or self._must_wait():
                self._tail += memoryview(data)[at:]
                self._lacks = 0
                self._wait_for_turn()
                return
            found = cut(data, at, self._max_size)
            if found.__class__ is not Cut:
                self._tail += memoryview(data)[at:]
                self._lacks = found  # type: ignore[assignment]
                return
            if found.opcode and self._fragments is None and self._conn.state is OPEN:
                self._budget -= 1
                self._deliver(found.opcode, found.payload)
            else:
                self._budget -= 4
                self._library(data[at : found.end])
            at = found.end

    def _must_wait(self) -> bool:
        """Whether who gets the messages has enough of them."""
        if self._session is not None:
            return self._session.is_full
        return self._event_bytes > READ_AHEAD

    def _wait_for_turn(self) -> None:
        if not self._is_waiting_for_turn:
            self._is_waiting_for_turn = True
            self._sync_reading()
            if not self._must_wait():
                self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        """Go on with what was read; also called when there is room for more messages."""
        if self._must_wait() or not self._is_open or self._is_lost:
            return
        self._is_waiting_for_turn = False
        self._turn, self._budget = self._loop.time(), TURN
        data, self._tail = bytes(self._tail), bytearray()
        self._lacks = 0
        self._consume(data)
        self._sync_reading()

    def _sync_reading(self) -> None:
        if self.transport.is_closing():
            return
        if self._is_waiting_for_turn or (not self._is_open and len(self._tail) > READ_AHEAD):
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def _library(self, data: bytes) -> None:
        if data[0] == CLOSE_FRAME and self._fragments is not None:
            # A close frame may come between the fragments of a message that is then never finished (RFC 6455, section
            # 5.4); the library takes it for an error.
            self._fragments = self._conn.current_size = None
        self._conn.receive_data(data)
        for event in self._conn.events_received():
            if isinstance(event, LibraryFrame):
                self._frame(event)
        if self._conn.parser_exc is not None and self._conn.close_sent is not None:
            self._finish(Close(self._conn.close_sent.code, self._conn.close_sent.reason, "server"))
            if self._event_bytes:
                # What came before the error is answered before the close frame is written.
                self._has_last_words = True
                self._close_in_time()
                return
        self._flush()

    def _frame(self, frame: LibraryFrame) -> None:
        if frame.opcode is Opcode.PING and self.is_paused:
            # Only the latest need be answered (RFC 6455, section 5.5.3), so a client that reads nothing costs nothing.
            self._pong = self._conn.data_to_send()[-1]
        elif frame.opcode is Opcode.PONG:
            self._got_pong(bytes(frame.data))
        elif frame.opcode is Opcode.CLOSE:
            close = self._conn.close_rcvd
            if close is not None:
                self._finish(Close(close.code, close.reason, "client"))
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._fragment(frame)

    def _fragment(self, frame: LibraryFrame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._opcode = int(frame.opcode)
            self._fragment_counts = [0, 0]
            if frame.fin:
                self._deliver(self._opcode, bytes(frame.data))
                return
            self._fragments = bytearray()
            self._utf8 = codecs.getincrementaldecoder("utf-8")() if self._opcode == TEXT else None
        if self._fragments is None or not self._is_utf8(frame):
            return
        self._fragments += frame.data
        self._fragment_counts[0] += 1
        self._fragment_counts[1] += not frame.data
        if self._fragment_counts[0] > MAX_FRAGMENTS or self._fragment_counts[1] > MAX_EMPTY_FRAGMENTS:
            self._fail(CloseCode.POLICY_VIOLATION, "too many fragments")
        elif frame.fin:
            message, self._fragments = bytes(self._fragments), None
            self._deliver(self._opcode, message)

    def _is_utf8(self, frame: LibraryFrame) -> bool:
        """Whether a text is valid so far; a message that cannot become valid is refused before its last fragment."""
        try:
            if self._utf8 is not None:
                self._utf8.decode(bytes(frame.data), frame.fin)
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_PAYLOAD, "invalid UTF-8")
            return False
        return True

    def _deliver(self, opcode: int, payload: bytes) -> None:
        content: str | bytes = payload
        if opcode == TEXT:
            try:
                content = payload.decode()
            except UnicodeDecodeError:
                self._fail(CloseCode.INVALID_PAYLOAD, "invalid UTF-8")
                return
        if self._session is not None:
            self._session.feed(content)
        elif self._end is None:
            kind = "text" if opcode == TEXT else "bytes"
            self._event_bytes += len(payload) + 1
            self._put({"type": "websocket.receive", kind: content})

    # --- writing

    def write(self, data: bytes) -> None:
        """Write a frame; nowhere, once the connection is closing or gone."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def _flush(self) -> None:
        """Write what the library has to say."""
        for data in self._conn.data_to_send():
            if data:
                self.write(data)
            else:  # it wants the connection closed
                self._close_in_time()
                self.transport.close()

    def send_close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        if self._conn.state is OPEN:
            self._conn.send_close(code, reason)
            self._flush()
            self._close_in_time()

    def _fail(self, code: int, reason: str) -> None:
        self._finish(Close(code, reason, "server"))
        self._conn.fail(code, reason)
        self._flush()

    def abort(self) -> None:
        """Cut the connection, unless it is closing already."""
        if not self.transport.is_closing():
            self.transport.abort()

    def _close_in_time(self) -> None:
        if self._deadline is None:
            self._deadline = self._loop.call_later(CLOSE_TIMEOUT, self.transport.abort)

    def _finish(self, close: Close) -> None:
        """Tell who gets the messages that there are no more; the first to say why is right."""
        if self._end is None:
            self._end = close
            if not self._ended.done():
                self._ended.set_result(close)
            self._put({"type": "websocket.disconnect", "code": int(close.code), "reason": close.reason})

    # --- pings

    async def ping(self) -> float | None:
        """Send a ping; its round trip in seconds, or ``None`` if the connection ended first."""
        waiter: asyncio.Future[float] = self._loop.create_future()
        self._send_ping(waiter)
        try:
            return await waiter
        except ClientDisconnected:
            return None

    def _send_ping(self, waiter: asyncio.Future[float] | None) -> bytes:
        payload = os.urandom(4)
        if self._is_lost or self._conn.state is not OPEN:
            if waiter is not None:
                waiter.set_exception(ClientDisconnected())
            return payload
        self._pings[payload] = (self._loop.time(), waiter)
        self._conn.send_ping(payload)
        self._flush()
        return payload

    def _got_pong(self, payload: bytes) -> None:
        if payload not in self._pings:
            return
        # A pong answers every ping up to its own (RFC 6455, section 5.5.3).
        for sent in list(self._pings):
            at, waiter = self._pings.pop(sent)
            if waiter is not None and not waiter.done():
                waiter.set_result(self._loop.time() - at)
            if sent == payload:
                return

    def _schedule_ping(self) -> None:
        if self._keepalive is not None:
            self._keepalive.cancel()
            self._keepalive = None
        if self._ping_interval:
            self._keepalive = self._loop.call_later(self._ping_interval, self._keep_alive)

    def _keep_alive(self) -> None:
        self._keepalive = None
        if self._conn.state is not OPEN or self.transport.is_closing():
            return
        payload = self._send_ping(None)
        if self._ping_timeout:
            self._keepalive = self._loop.call_later(self._ping_timeout, self._check_pong, payload)
        else:
            self._schedule_ping()

    def _check_pong(self, payload: bytes) -> None:
        self._keepalive = None
        # While we do not read, its pong may be among what is not read.
        if payload in self._pings and not self._is_waiting_for_turn:
            self._finish(Close(CloseCode.ABNORMAL, "", "network"))
            self._conn.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
            self._flush()
            self.transport.abort()
            return
        self._pings.pop(payload, None)
        self._schedule_ping()

    # --- a broker's session

    def configure(self, settings: Settings) -> None:
        """Apply a broker's settings, before the handshake is accepted."""
        self._max_size = settings.max_message_size
        self._conn.max_message_size = settings.max_message_size
        self._deflate = settings.enable_compression
        self._ping_interval = settings.ping_interval or None
        self._ping_timeout = settings.ping_timeout
        self.transport.set_write_buffer_limits(high=settings.write_buffer_size)

    def take(self, session: Session, settings: Settings, counters: Counters) -> TransportOutbox:
        """Feed a session from now on, and send what it sends."""
        self._session = session
        session.on_room = self._next_turn
        self._outbox = TransportOutbox(
            self,
            session,
            counters,
            window_bits=self._window_bits,
            limit=settings.send_queue_size,
            drop=settings.slow_client == "drop",
        )
        return self._outbox

    async def closed(self) -> Close:
        """Wait until the connection has ended; how."""
        return await self._ended

    # --- an application that reads ASGI events

    async def _run(self) -> None:
        try:
            await self._config.loaded_app(self._scope, self._receive, self._send)
        except ClientDisconnected:
            self._log.debug("the application sent to a client that had gone")
        except Exception:
            self._log.exception("Exception in ASGI application\n")
            self._refuse(500, [], b"Internal Server Error")
            self.send_close(CloseCode.INTERNAL_ERROR, "")
        else:
            if not self._is_open and self._end is None:
                self._log.error("ASGI callable returned without completing handshake.")
                self._refuse(500, [], b"Internal Server Error")
            self.send_close(CloseCode.NORMAL, "")
        finally:
            self._session = self._outbox = None

    async def _receive(self) -> Message:
        while not self._events:
            self._reader = self._loop.create_future()
            await self._reader
        event = self._events.popleft()
        if self._has_last_words and event["type"] == "websocket.disconnect":
            self._has_last_words = False
            self._flush()
        if self._event_bytes and event["type"] == "websocket.receive":
            content = event.get("bytes")
            self._event_bytes -= 1 + (len(content) if content is not None else len(event["text"].encode()))
            if self._is_waiting_for_turn:
                self._loop.call_soon(self._next_turn)
        return event

    def _put(self, event: Message) -> None:
        self._events.append(event)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _send(self, message: Message) -> None:
        while self.is_paused and self._end is None and not self.transport.is_closing():
            self._writable = self._writable or self._loop.create_future()
            await self._writable
            self._writable = None
        kind = message["type"]
        if self._denial is not None:
            self._send_denial(message)
        elif not self._is_open:
            self._send_handshake(kind, message)
        elif kind == "websocket.send":
            if (self._end is not None or self._conn.state is not OPEN) and not self._has_last_words:
                raise ClientDisconnected
            text = message.get("text")
            frame = Frame(message["bytes"], False) if text is None else Frame(text.encode())
            self.write(frame.wire(self._window_bits))
        elif kind == "websocket.close":
            if self._end is not None:
                raise ClientDisconnected
            code, reason = message.get("code") or 1000, message.get("reason") or ""
            self._finish(Close(code, reason, "server"))
            self.send_close(code, reason)
        else:
            raise RuntimeError(f"Expected ASGI message 'websocket.send' or 'websocket.close', but got '{kind}'.")

    def _send_handshake(self, kind: str, message: Message) -> None:
        if self._end is not None:
            raise ClientDisconnected
        if kind == "websocket.accept":
            self._accept(message.get("subprotocol"), message.get("headers") or ())
        elif kind == "websocket.close":
            self._refuse(403, [], b"")
        elif kind == "websocket.http.response.start":
            self._denial = (message["status"], list(message.get("headers") or ()), [])
        else:
            raise RuntimeError(f"Expected the handshake to be accepted or refused, but got '{kind}'.")

    def _send_denial(self, message: Message) -> None:
        if message["type"] != "websocket.http.response.body" or self._denial is None:
            raise RuntimeError(f"Expected 'websocket.http.response.body', but got '{message['type']}'.")
        status, headers, body = self._denial
        body.append(message.get("body", b""))
        if not message.get("more_body", False):
            self._refuse(status, headers, b"".join(body))


def _latin(value: str) -> bytes:
    return value.encode("latin-1", errors="surrogateescape")
