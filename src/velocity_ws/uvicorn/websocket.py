"""WebSocket: uvicorn's WebSocket class: the handshake, the application that is called, the end of the server.

(``--ws velocity_ws.uvicorn:WebSocketProtocol``.) It serves any ASGI application. Knows no hub and no hook.
"""

from __future__ import annotations

import asyncio
import logging
import urllib.parse
from collections.abc import Callable
from typing import Any

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected, get_client_addr, is_ssl
from uvicorn.server import ServerState

from velocity_ws.asgi.transport import EXTENSION
from velocity_ws.close import APPLICATION_FAILED, APPLICATION_RETURNED, Close, CloseCode
from velocity_ws.logs import printable, quote_exception
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.uvicorn.behind_proxies import READ
from velocity_ws.uvicorn.events import ASGIEvents
from velocity_ws.uvicorn.session_transport import NO_CALL, SessionTransport
from velocity_ws.uvicorn.socket_names import LocalAddress, PeerAddress, local_address, peer_address
from velocity_ws.uvicorn.state import count_refusal, is_stopping, refuse_handshakes
from velocity_ws.websocket.handshake import Handshake
from velocity_ws.websocket.request import RawHeaders, RequestReader
from velocity_ws.websocket.scope import ExtensionKeys

__all__ = ["WebSocketProtocol"]

LOW_WATER = 16 * 1024
"""Bytes up to which a transport takes more again, unless its limits were changed."""

log = logging.getLogger("uvicorn.error")
log.addFilter(quote_exception)  # an application's may say what a stranger sent


class WebSocketProtocol(SessionTransport):
    """A uvicorn WebSocket class (``--ws``): an ASGI server for one connection, and a transport for a broker's session.

    Attributes:
        on_lost: called once when the connection is gone.
    """

    __slots__ = (
        "_app_state", "_events", "_handshake", "_is_lost", "_request", "_scope", "_server_state", "_task",
        "on_lost",
    )  # fmt: skip

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, _loop)
        self._server_state = server_state
        self._app_state = app_state
        self._events = ASGIEvents(self, self._loop)
        self._request: RequestReader | None = None
        self._scope: Scope = {}
        self._handshake: Handshake | None = None
        self._task: asyncio.Task[None] | None = None
        self.on_lost: Callable[[], None] | None = None
        self._is_lost = False

    # --- what the event loop and the HTTP class call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection from the HTTP class."""
        super().connection_made(transport)
        self._server_state.connections.add(self)  # type: ignore[arg-type]

    def upgraded(
        self, path: bytes, headers: RawHeaders, server: LocalAddress | None = None, client: PeerAddress | None = None
    ) -> None:
        """Take the parsed request from the HTTP class.

        Args:
            path: with the query.
            headers: with names in lower case.
            server: the connection's own address, where it is known already.
            client: the peer's, likewise.
        """
        handshake = self._handshake = Handshake(self._shared.negotiator, path, headers)
        if self.transport.get_write_buffer_size() > LOW_WATER:
            # A response that was not read. The loop has paused the HTTP class for that, and not this one.
            self.refuse_handshake(400, [], b"read the response before you ask for a WebSocket")
        elif is_stopping(self._server_state):
            self.refuse_handshake(503, [], b"the server is restarting")
        elif not handshake.is_valid:
            self._turn_away(handshake.refusal())
        else:
            scope = self._scope = handshake.scope(
                root_path=self._config.root_path,
                asgi_version=self._shared.asgi_version,
                scheme="wss" if is_ssl(self.transport) else "ws",
                server=self._shared.addresses.of(server or local_address(self.transport)),
                client=client or peer_address(self.transport),
                state=self._app_state.copy(),
                extensions=vars(ExtensionKeys(EXTENSION, self)),
            )
            self._task = self._loop.create_task(self._run(scope))

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client. An HTTP class that does not know `upgraded` gives the request first."""
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
            count_refusal(self._server_state)
            self._writer.write_all(replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._server_state.connections.discard(self)
        self._shared.peers.remove(self)
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()
        self._is_lost = True
        if self._task is None:
            self._detach()
        else:
            self._show_task()

    def shutdown(self) -> None:
        """Drain: the server is stopping. uvicorn calls this for each connection, and waits until all are gone."""
        refuse_handshakes(self._server_state)
        self._show_task()
        self.refuse_handshake(503, [], b"the server is restarting")
        if self._shared.late_connections is not None:
            self._shared.late_connections.answer()
        self._shared.drain.add(self, self._terms.drain_timeout)

    def _show_task(self) -> None:
        """Let uvicorn wait for the task, or cancel it, as it stops. While nobody stops, it sees the connection."""
        if self._task is not None and self._task not in self._server_state.tasks:
            self._server_state.tasks.add(self._task)
            self._task.add_done_callback(self._server_state.tasks.discard)

    # --- draining

    def abort(self) -> None:
        """End now, and what runs for the connection too."""
        if self._session is not None:
            self._session.abort(hurry=True)
        elif self._task is not None:
            self._task.cancel()
        self._writer.abort(even_if_closing=True)

    # --- the handshake's answer

    def accept_handshake(self, subprotocol: str | None, headers: RawHeaders) -> None:
        """Accept the handshake.

        Raises:
            OSError: the client has gone.
        """
        handshake, terms = self._handshake, self._terms
        if handshake is None or self._end is not None or self.transport.is_closing():
            raise ClientDisconnected
        more = [*self._server_state.default_headers, *headers]
        response, self._parser.window = handshake.accept(subprotocol, more, deflate=terms.deflate)
        self._handshake = None
        self.is_accepted = True
        self.transport.write(response)
        self._log_line("[accepted]")
        if not terms.waits_for_session:
            self._reader.open()
        if terms.keepalive is not None:
            self._keepalive = terms.keepalive
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
            count_refusal(self._server_state)
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
        super()._tell_end(close)
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

    def write_message(self, message: PreparedMessage) -> None:
        """Write a message to the transport."""
        self._writer.write(message.wire(self._window_bits))

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake, and let the application receive no more."""
        self._finish(Close(code, reason, "server"))
        self._writer.send_close(code, reason)
        self._reader.resume()  # up to the client's answer, however much it sent before

    def resume_reading(self) -> None:
        """There is room for more messages."""
        self._reader.resume()

    # --- the application

    def _detach(self) -> None:
        """Nothing is left to happen: break the cycles with what refers back here, so that all of it is freed at once,
        and not when the garbage collector comes, until which thousands of closed connections may wait."""
        self._reader.detach()
        self._events.detach()
        self._scope, self.call, self.on_lost = {}, NO_CALL, None

    async def _run(self, scope: Scope) -> None:
        try:
            if self._shared.proxies is not None and (self._handshake is None or self._handshake.has_any(READ)):
                await self._shared.proxies(scope, self._events.receive, self._events.send)
            await self._shared.application(scope, self._events.receive, self._events.send)
        except ClientDisconnected:
            log.debug("the application sent to a client that had gone")
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                log.exception("Exception in ASGI application\n")
            self.refuse_handshake(500, [], b"Internal Server Error")
            self._writer.send_close(*APPLICATION_FAILED)
            if not isinstance(error, Exception):
                raise
        else:
            if not self.is_accepted and self._end is None:
                log.error("ASGI callable returned without completing handshake.")
                self.refuse_handshake(500, [], b"Internal Server Error")
            self._writer.send_close(*APPLICATION_RETURNED)
        finally:
            self._session = self._outbox = self._task = None
            self._events.abandon()
            self.say_last_words()
            if not self._reader.is_over:
                self._reader.open()  # where a broker failed before it took the messages
                self._reader.resume()
            if self._is_lost:
                self._detach()
