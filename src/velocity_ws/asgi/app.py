"""Endpoint and WebSocketApp: the ASGI application of a broker, and a client's way through it: handshake, messages, end.

Knows no form of a handshake's answer, no policy and no server: `transport` and `admission` have those.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from anyio import CancelScope
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from velocity_ws.asgi.admission import Admission, fields_of
from velocity_ws.asgi.mount import patch_mount
from velocity_ws.asgi.pages import answer, route_path
from velocity_ws.asgi.stream_endpoint import StreamEndpoint
from velocity_ws.asgi.transport import transport_for
from velocity_ws.broker.broker import Broker
from velocity_ws.broker.node import Node
from velocity_ws.close import LOST, SHUTTING_DOWN, Close
from velocity_ws.delivery.outbox import Outbox
from velocity_ws.errors import BrokerError, Reject, VelocityError
from velocity_ws.logs import get_logger, printable
from velocity_ws.paths import STREAMS
from velocity_ws.sessions.session import Session
from velocity_ws.sessions.transport import Transport

__all__ = ["STREAM", "Endpoint", "WebSocketApp", "serve_client", "serving", "start_and_say"]

log = get_logger("velocity_ws.asgi")

STREAM = "velocity_ws.stream"
"""Where a scope has the id of the stream that it is for."""


class Endpoint:
    """What a broker's endpoint does with each ASGI scope, wherever a route or middleware has led it here."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._admission = Admission(broker.node)
        self._streams = StreamEndpoint(broker.node, self._admission)
        self._complaint: str | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await serving(self, scope, receive, send)

    async def _serve_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (stream := _stream_of(scope)) is not None:
            await self._streams(stream, scope, receive, send)
        elif scope["type"] == "http":
            response = await answer(scope, self._is_healthy)
            await response(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await start_and_say(self._broker, send)
            else:
                await self._broker.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _is_healthy(self) -> bool:
        """Whether it can be sent clients; where nobody has started the broker, this does."""
        try:
            await self._broker.node.lifecycle.ensure_started()
        except VelocityError as error:
            if str(error) != self._complaint:  # probes come every few seconds
                self._complaint = str(error)
                log.warning("not healthy: %s", printable(str(error)))
        return self._broker.healthy


def _stream_of(scope: Scope) -> str | None:
    """The id of the stream that a request is for; ``None`` for others. Where it is mounted, its path begins there."""
    path = route_path(scope)
    found: str | None = scope.get(STREAM, path[len(STREAMS) :] if path.startswith(STREAMS) else None)
    return found


class WebSocketApp(Endpoint):
    """The bare ASGI application of a broker: takes every WebSocket it gets, wherever it is mounted.

    It also serves the browser client as ``velocity.js`` below its path, ``health`` (200, or 503 where it does not hear
    the other nodes), and starts and stops the broker where the server sends it lifespan events. Where nobody does that,
    the first connection starts the broker, or the first request for ``health``.

    Making one wraps Starlette's ``Mount.matches``, so that a mounted one is found without the slash at its path's end.
    """

    matches_mount_without_slash = True

    def __init__(self, broker: Broker) -> None:
        patch_mount()
        super().__init__(broker)


def serving(endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
    """What a call of an endpoint awaits. Middleware awaits it without the call, whose frame would be there as long.

    Args:
        endpoint: where the scope was led.
        scope: ASGI's, as the others.
        receive: of the server.
        send: of the server.
    """
    if scope["type"] != "websocket":
        return endpoint._serve_request(scope, receive, send)
    transport = transport_for(scope, receive, send)
    return serve_client(endpoint._broker.node, endpoint._admission, HTTPConnection(scope), transport)


async def serve_client(node: Node, admission: Admission, request: HTTPConnection, transport: Transport) -> None:
    """Serve one client over a transport of any kind, from its handshake to its last hook. On the broker's loop only.

    Where nobody has started the node, this does. Cancelling it ends the client's connection; its hooks are still told.

    Args:
        node: gets the client.
        admission: decides whether it may come in.
        request: the handshake: headers, query, address; any HTTP request's will do.
        transport: carries the client. It makes no difference here what it is.
    """
    # This frame is there for as long as the client is, and is all there is then: what comes before and after has its
    # own. Each name and each call that is nested in it takes 8 bytes for each client, a frame 250.
    if not node.lifecycle.is_started_here and not await _is_started(node, admission, transport):
        return
    ip = _look_at_address(admission, request, transport)
    session = Session(node.context, request)
    limits = node.connection_limits
    full = limits.count_in(ip)
    close, is_accepted = LOST, False
    try:
        is_accepted = await admission.admit(session, full, transport)
        if not is_accepted:
            return
        outbox = transport.open(session, node.context)
        try:
            _open(node, session, outbox)
            close = await transport.wait_closed()
        except asyncio.CancelledError:
            if not _was_aborted(session):
                raise
        finally:
            # Whatever cancels this task (a server that gives up, a test client that leaves), the end is told.
            if not session.finish_now(close):
                await _finish(session, close)
    finally:
        if not is_accepted:
            session.detach()
        if node.users.expected:
            node.users.expect_no_more(session)
        if full is None:
            limits.count_out(ip)


async def _is_started(node: Node, admission: Admission, transport: Transport) -> bool:
    """Start the node where nobody has; where it cannot be, refuse the client."""
    try:
        await node.lifecycle.ensure_started()
    except BrokerError as error:
        log.error("handshake refused: %s", printable(str(error)))
        node.counters.rejected += 1
        await admission.refuse(Reject("not running", status=503), transport)
        return False
    return True


def _look_at_address(admission: Admission, request: HTTPConnection, transport: Transport) -> str | None:
    """The client's address, without its port; ``None`` where there is none."""
    address = request.scope.get("client")
    ip: str | None = None if address is None else address[0]
    if admission.addresses is not None:
        admission.addresses.look(ip, request.headers, trusts_everyone=transport.trusts_everyone)
    return ip


def _open(node: Node, session: Session, outbox: Outbox) -> None:
    if log.isEnabledFor(logging.DEBUG):
        log.debug("client connected", extra=fields_of(session))
    session.open(outbox)
    if not node.lifecycle.is_running:  # it was stopped while this was being accepted
        session.close(SHUTTING_DOWN, handle="nothing")


async def _finish(session: Session, close: Close) -> None:
    try:
        with CancelScope(shield=True):
            await session.finish(close)
    except asyncio.CancelledError:
        if not _was_aborted(session):
            raise


def _was_aborted(session: Session) -> bool:
    """Whether a cancellation of this task was the session's doing, and so ends here."""
    task = asyncio.current_task()
    if session.is_aborted and task is not None:
        task.uncancel()
    return session.is_aborted


async def start_and_say(broker: Broker, send: Send) -> bool:
    """Answer a server's ``lifespan.startup``, which takes an exception for not being understood; whether it started."""
    try:
        await broker.start()
    except VelocityError as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return False
    await send({"type": "lifespan.startup.complete"})
    return True
