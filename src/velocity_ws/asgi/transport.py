"""ASGITransport: a client's WebSocket on any ASGI server, and how the transport of a scope is found. Knows no server.

ASGI: https://asgi.readthedocs.io/en/latest/specs/www.html#websocket
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from starlette.types import Message, Receive, Scope, Send

from velocity_ws.close import LOST, MAX_REASON_BYTES, Close, CloseCode, refused
from velocity_ws.delivery.outbox import Outbox
from velocity_ws.delivery.queue_outbox import QueueOutbox
from velocity_ws.errors import Reject
from velocity_ws.sessions.context import NodeContext
from velocity_ws.sessions.inbox import SECONDS_PER_TURN
from velocity_ws.sessions.session import Session
from velocity_ws.sessions.transport import RawHeaders, Transport
from velocity_ws.settings import Settings

__all__ = ["EXTENSION", "ASGICall", "ASGITransport", "ServerTransport", "acceptance", "send_refusal", "transport_for"]

EXTENSION = "velocity_ws.transport"
"""Where a server's own class is found in ``scope["extensions"]``, which survive ``Mount`` and middleware."""
ASGICall = tuple[Scope, Receive, Send]
"""What an application is called with. Middleware may pass on another of each."""
EVENTS_PER_TURN = 16
"""Messages read before others get their turn: ``receive`` does not suspend while the server has one ready."""


class ServerTransport(Transport, Protocol):
    """A transport that a server offers beside ASGI's events, of which only the handshake's are used.

    Attributes:
        call: what the broker's endpoint was called with: middleware sees the handshake, and may change its answer.
    """

    call: ASGICall


class ASGITransport:
    """A transport of ASGI events, one for each message: what every server has.

    Attributes:
        accepted_at: ``None``, as no event says when the client connected.
        accepts_at_once: false, as the server or middleware may wait in any event.
        trusts_everyone: false, as no event says whether the server believes any peer's word of the client's address.
    """

    __slots__ = ("_receive", "_scope", "_send", "_session")

    accepted_at: float | None = None
    accepts_at_once = False
    trusts_everyone = False

    _session: Session

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send

    def configure(self, settings: Settings) -> None:
        """What there is to set is set where the server is started."""

    async def begin(self) -> None:
        """Take the event that every handshake begins with. All that it says is in the scope."""
        await self._receive()

    async def accept(self, subprotocol: str | None, headers: RawHeaders) -> None:
        """Accept the handshake, with the selected subprotocol if any."""
        await self._send(acceptance(subprotocol, headers))

    async def refuse(self, reject: Reject, subprotocol: str | None) -> None:
        """Refuse the handshake with a status, or with a close code."""
        await send_refusal(self._scope, self._send, reject, subprotocol)

    def open(self, session: Session, context: NodeContext[Session]) -> Outbox:
        """Begin to carry messages."""
        context.hints.faster_way()
        self._session = session
        settings = context.settings
        drop = settings.slow_client == "drop"
        return QueueOutbox(self._send, session, context.counters, limit=settings.send_queue_size, drop=drop)

    async def wait_closed(self) -> Close:
        """Feed what arrives to the session until the connection ends; how it did."""
        receive, inbox = self._receive, self._session.inbox
        count = 0
        loop = asyncio.get_running_loop()
        turn = loop.time()
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                return _close(event)
            text = event.get("text")
            inbox.feed(event["bytes"] if text is None else text)
            count += 1
            if inbox.is_full:
                await inbox.room()
            elif count % EVENTS_PER_TURN == 0 or loop.time() - turn > SECONDS_PER_TURN:
                await asyncio.sleep(0)
                turn = loop.time()


def transport_for(scope: Scope, receive: Receive, send: Send) -> Transport:
    """What carries the WebSocket of a scope: the server's own class, or ASGI's events."""
    offered: ServerTransport | None = scope.get("extensions", {}).get(EXTENSION)
    if offered is None:
        return ASGITransport(scope, receive, send)
    offered.call = scope, receive, send
    return offered


def acceptance(subprotocol: str | None, headers: RawHeaders) -> Message:
    """The event that accepts a handshake; middleware may add to its headers."""
    event: Message = {"type": "websocket.accept", "subprotocol": subprotocol}
    return {**event, "headers": list(headers)} if headers else event


async def send_refusal(scope: Scope, send: Send, reject: Reject, subprotocol: str | None) -> None:
    """Answer a handshake with a refusal, in the best form that the server has for it.

    Args:
        scope: says whether there are HTTP responses.
        send: the application's.
        reject: the reason, with the status or the close code.
        subprotocol: to select where there is a code: a browser that gets none of those it offered does not read it.
    """
    if reject.code is not None:
        await send(acceptance(subprotocol, _fields(reject)))
        await send({"type": "websocket.close", "code": reject.code, "reason": reject.reason})
    elif "websocket.http.response" in scope.get("extensions", {}):
        body = reject.reason.encode(errors="replace")
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
        headers += _fields(reject)
        await send({"type": "websocket.http.response.start", "status": reject.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body})
    else:
        reason = reject.reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")
        code, reason = refused(reason)
        await send({"type": "websocket.close", "code": code, "reason": reason})


def _fields(reject: Reject) -> RawHeaders:
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in reject.headers.items()
        if name.lower() not in ("content-type", "content-length")
    ]


def _close(event: Any) -> Close:
    code = event.get("code") or CloseCode.NO_STATUS
    reason = event.get("reason")
    if code == CloseCode.ABNORMAL or (code == CloseCode.NO_STATUS and reason is None):
        # Without a close frame uvicorn says 1005, and gives no reason; RFC 6455, section 7.1.5, calls that 1006.
        return LOST
    if code == CloseCode.SERVICE_RESTART:
        return Close(code, reason or "", "server")
    return Close(code, reason or "", "client")
