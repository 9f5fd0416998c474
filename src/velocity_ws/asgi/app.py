"""WebSocketApp: the handshake, the read loop, the end. The only place that knows ASGI's message keys.

ASGI: https://asgi.readthedocs.io/en/latest/specs/www.html#websocket
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any, NoReturn

from anyio import CancelScope
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from velocity_ws.asgi.mount import match_without_slash
from velocity_ws.asgi.pages import answer
from velocity_ws.asgi.proxies import AddressCheck
from velocity_ws.broker.broker import Broker
from velocity_ws.close import MAX_REASON_BYTES, Close, CloseCode
from velocity_ws.delivery.outbox import Outbox, QueueOutbox
from velocity_ws.errors import BrokerError, Reject, VelocityError
from velocity_ws.logs import MAX_QUOTED, WarningsOfStrangers, get_logger, printable, quote
from velocity_ws.origins import Origin, OriginPattern, is_same_origin
from velocity_ws.sessions.inbox import SECONDS_PER_TURN
from velocity_ws.sessions.session import Session
from velocity_ws.sessions.transport import EXTENSION, Carrier

__all__ = ["WebSocketApp", "start_and_say"]

log = get_logger("velocity_ws.app")

_HOW_TO_ALLOW_HOSTLESS = (
    "sandboxed frames, local files and some embedded browsers have it, no matter who wrote the page; it belongs to no "
    "host, so that a proxy's Host does not matter; add it to WS_ALLOWED_ORIGINS to allow it"
)
MAX_ORIGINS = 100
"""Pairs of an origin and a host of which it is kept that they were logged."""
EVENTS_PER_TURN = 16
"""Messages read before others get their turn: ``receive`` does not suspend while the server has one ready."""


class WebSocketApp:
    """The bare ASGI application of a broker: takes every WebSocket it gets, wherever it is mounted.

    It also serves the browser client as ``velocity.js`` below its path, ``health`` (200, or 503 where it does not hear
    the other nodes), and starts and stops the broker where the server sends it lifespan events. Where nobody does that,
    the first connection starts the broker, or the first request for ``health``.
    """

    matches_mount_without_slash = True

    def __init__(self, broker: Broker) -> None:
        match_without_slash()
        self._broker = broker
        settings = broker.settings
        self._origins = [OriginPattern.parse(text) for text in settings.allowed_origins]
        self._any_origin = any(pattern.origin is None for pattern in self._origins)
        self._complaint: str | None = None
        self._warnings = WarningsOfStrangers(log)
        self._refused_origins: set[tuple[str, str]] = set()
        self._address_check = AddressCheck() if settings.max_connections_per_ip else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
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
            await self._broker.node.ensure_started()
        except VelocityError as error:
            if str(error) != self._complaint:  # probes come every few seconds
                self._complaint = str(error)
                log.warning("not healthy: %s", printable(str(error)))
        return self._broker.healthy

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = HTTPConnection(scope)
        broker = self._broker
        try:
            await broker.node.ensure_started()
        except BrokerError as error:
            log.error("handshake refused: %s", printable(str(error)))
            broker.node.counters.rejected += 1
            await receive()
            await self._refuse(Reject("not running", status=503), scope, send)
            return
        address = scope.get("client")
        ip = None if address is None else address[0]
        if self._address_check is not None:
            carrier = _carrier(scope)
            trusts_everyone = carrier is not None and carrier.trusts_everyone
            self._address_check.look(ip, request.headers, trusts_everyone=trusts_everyone)
        session = Session(broker.node.context, request)
        admission = broker.node.admission
        full = admission.enter(ip)
        is_accepted = False
        try:
            is_accepted = await self._handshake(session, full, scope, receive, send)
            if is_accepted:
                await self._serve(session, scope, receive, send)
            else:
                broker.node.counters.rejected += 1
        finally:
            if not is_accepted:
                session.release()
            if broker.node.expected:
                broker.node.expect_no_more(session)
            if full is None:
                admission.leave(ip)

    # --- before accept

    async def _handshake(self, session: Session, full: str | None, scope: Scope, receive: Receive, send: Send) -> bool:
        """Accept or refuse; whether it was accepted."""
        node = self._broker.node
        carrier = _carrier(scope)
        asks = node.dispatcher.has("authenticate") or node.settings.check_origin is not None
        try:
            if carrier is not None and not asks:  # then nothing in it can wait
                await self._let_in(session, full, carrier, receive, send)
                return True
            accepted_at = None if carrier is None else carrier.accepted_at
            began = asyncio.get_running_loop().time() if accepted_at is None else accepted_at
            async with asyncio.timeout_at(began + node.settings.handshake_timeout) as deadline:
                node.handshakes.add(deadline)
                try:
                    await self._let_in(session, full, carrier, receive, send, deadline)
                    return True
                finally:
                    node.handshakes.discard(deadline)
        except Reject as refusal:
            reject = refusal
        except TimeoutError:
            reject = Reject("shutting down", status=503)
            if self._broker.is_running:
                reject = Reject("the handshake took too long", status=503)
                late = "handshake of %s refused: it took longer than WS_HANDSHAKE_TIMEOUT"
                self._warnings.warn(late, _who(session), extra=_fields(session))
        except OSError:  # the client has gone; there is nobody to answer
            return False
        try:
            await self._refuse(reject, scope, send)
        finally:
            del reject  # which refers to this frame, and to all that is in it
        return False

    async def _let_in(
        self,
        session: Session,
        full: str | None,
        carrier: Carrier | None,
        receive: Receive,
        send: Send,
        deadline: asyncio.Timeout | None = None,
    ) -> None:
        if carrier is not None:
            carrier.configure(self._broker.settings)
        await receive()
        await self._admit(session, full)
        if deadline is not None:  # else nothing has waited
            if deadline.expired():  # and a hook has swallowed it
                raise TimeoutError
            if not self._broker.is_running:
                raise Reject("shutting down", status=503)
        client, selected = session.client, None
        if offered := client.request.scope.get("subprotocols"):
            selected = self._select_subprotocol(offered)
            if selected is not None:
                client.subprotocol = selected
        await send({"type": "websocket.accept", "subprotocol": selected})

    async def _admit(self, session: Session, full: str | None) -> None:
        """
        Raises:
            Reject: the connection is not to be accepted.
        """
        node = self._broker.node
        if not node.is_running:
            raise Reject("shutting down", status=503)
        if full is not None:
            node.hints.full(full, _who(session), _fields(session))
            raise Reject("too many connections", status=503)
        await self._check_origin(session)
        if node.dispatcher.has("authenticate"):
            await self._identify(session)

    async def _identify(self, session: Session) -> None:
        node, client = self._broker.node, session.client
        user = await node.dispatcher.authenticate(client)
        if user is None:
            return
        try:
            user_id = node.user_id_of(user)
        except Exception as error:
            await node.dispatcher.report(client, error, of_stranger=True)
            raise Reject("authentication failed", status=500) from None
        client.identify(user, user_id)
        await node.expect(session)

    async def _check_origin(self, session: Session) -> None:
        settings = self._broker.settings
        request = session.client.request
        if settings.check_origin is not None:
            try:
                allowed = settings.check_origin(request)
                if inspect.isawaitable(allowed):
                    allowed = await allowed
            except Exception as error:
                await self._broker.node.dispatcher.report(session.client, error, of_stranger=True)
                raise Reject("origin check failed", status=500) from None
            if not allowed:
                self._refuse_origin(session, "check_origin refused it")
            return
        values = request.headers.getlist("origin")
        if self._any_origin or (not values and settings.allow_missing_origin):
            return
        if not values:
            self._refuse_origin(session, "it has none; WS_ALLOW_MISSING_ORIGIN=true would allow that")
        origin = Origin.parse(values[0]) if len(values) == 1 else None
        if origin is None:
            self._refuse_origin(session, "that is not one origin; only WS_ALLOWED_ORIGINS=* would allow it")
        if is_same_origin(origin, request.headers.getlist("host")):
            return
        if not any(pattern.matches(origin) for pattern in self._origins):
            how = self._how_to_allow(values[0][:MAX_QUOTED]) if origin.host else _HOW_TO_ALLOW_HOSTLESS
            self._refuse_origin(session, how)

    def _how_to_allow(self, origin: str) -> str:
        """What a developer can do where a page has another origin than the host that it asks."""
        name = "WS_ALLOWED_ORIGINS"
        allow = f"add {origin} to {name}" if self._origins else f"{name}={origin}"
        return (
            f"that is another origin. To allow it: {allow}. Where a proxy serves both, it must pass on the Host it got "
            "(nginx: proxy_set_header Host $http_host;)"
        )

    def _refuse_origin(self, session: Session, why: str) -> NoReturn:
        headers = session.client.request.headers
        origin, host = (
            ", ".join(map(quote, headers.getlist(name)))[:300] or f"no {name}" for name in ("origin", "host")
        )
        what = "handshake of %s refused because of its origin: a page of %s asked the host %s: %s"
        if (origin, host) in self._refused_origins:
            log.debug(what, _who(session), origin, host, why, extra=_fields(session))
        else:
            self._warnings.warn(what, _who(session), origin, host, why, extra=_fields(session))
            if len(self._refused_origins) < MAX_ORIGINS:
                self._refused_origins.add((origin, host))
        raise Reject("origin not allowed")

    def _select_subprotocol(self, offered: list[str]) -> str | None:
        """The first that the client offers and WS_SUBPROTOCOLS has: what is not listed may be a token."""
        selected = next((name for name in offered if name in self._broker.settings.subprotocols), None)
        if selected is None:
            self._broker.node.hints.no_subprotocol_fits()
        return selected

    async def _refuse(self, reject: Reject, scope: Scope, send: Send) -> None:
        """Answer a handshake with a refusal, in the best form the server has for it, in time."""
        try:
            async with asyncio.timeout(self._broker.settings.handshake_timeout):
                await self._send_refusal(reject, scope, send)
        except OSError:
            log.debug("the client had gone before it could be refused")

    async def _send_refusal(self, reject: Reject, scope: Scope, send: Send) -> None:
        if reject.code is not None:
            # Where it selects none of those offered, a browser does not read the code.
            offered = scope.get("subprotocols")
            selected = self._select_subprotocol(offered) if offered else None
            await send({"type": "websocket.accept", "subprotocol": selected})
            await send({"type": "websocket.close", "code": reject.code, "reason": reject.reason})
        elif "websocket.http.response" in scope.get("extensions", {}):
            body = reject.reason.encode(errors="replace")
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
            start = {"type": "websocket.http.response.start", "status": reject.status, "headers": headers}
            await send(start)
            await send({"type": "websocket.http.response.body", "body": body})
        else:
            reason = reject.reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")
            await send({"type": "websocket.close", "code": CloseCode.POLICY_VIOLATION, "reason": reason})

    # --- after accept

    async def _serve(self, session: Session, scope: Scope, receive: Receive, send: Send) -> None:
        node = self._broker.node
        settings = node.settings
        carrier = _carrier(scope)
        outbox: Outbox
        if carrier is None:
            node.hints.faster_way()
            drop = settings.slow_client == "drop"
            outbox = QueueOutbox(send, session, node.counters, limit=settings.send_queue_size, drop=drop)
        else:
            outbox = carrier.take(session, settings, node.counters, node.flusher)
        close = Close(CloseCode.ABNORMAL, "", "network")
        if log.isEnabledFor(logging.DEBUG):
            log.debug("client connected", extra=_fields(session))
        try:
            session.open(outbox)
            if not node.is_running:  # it was stopped while this was being accepted
                session.hurry()
            close = await (_read(session, receive) if carrier is None else carrier.closed())
        except asyncio.CancelledError:
            if not _was_aborted(session):
                raise
        finally:
            # Whatever cancels this task (a server that gives up, a test client that leaves), the end is told.
            if not session.finish_now(close):
                try:
                    with CancelScope(shield=True):
                        await session.finish(close)
                except asyncio.CancelledError:
                    if not _was_aborted(session):
                        raise


def _carrier(scope: Scope) -> Carrier | None:
    """What the server offers beyond ASGI, if it is one of ours."""
    carrier: Carrier | None = scope.get("extensions", {}).get(EXTENSION)
    return carrier


async def _read(session: Session, receive: Receive) -> Close:
    """Feed what arrives to the session until the connection ends; how it ended."""
    count = 0
    loop = asyncio.get_running_loop()
    turn = loop.time()
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return _close(event)
        text = event.get("text")
        session.inbox.feed(event["bytes"] if text is None else text)
        count += 1
        if session.inbox.is_full:
            await session.inbox.room()
        elif count % EVENTS_PER_TURN == 0 or loop.time() - turn > SECONDS_PER_TURN:
            await asyncio.sleep(0)
            turn = loop.time()


def _was_aborted(session: Session) -> bool:
    """Whether a cancellation of this task was the session's doing, and so ends here."""
    task = asyncio.current_task()
    if session.is_aborted and task is not None:
        task.uncancel()
    return session.is_aborted


def _close(event: Any) -> Close:
    code = event.get("code") or CloseCode.NO_STATUS
    reason = event.get("reason")
    if code == CloseCode.ABNORMAL or (code == CloseCode.NO_STATUS and reason is None):
        # Without a close frame uvicorn says 1005, and gives no reason; RFC 6455, section 7.1.5, calls that 1006.
        return Close(CloseCode.ABNORMAL, "", "network")
    if code == CloseCode.SERVICE_RESTART:
        return Close(code, reason or "", "server")
    return Close(code, reason or "", "client")


async def start_and_say(broker: Broker, send: Send) -> bool:
    """Answer a server's ``lifespan.startup``, which takes an exception for not being understood; whether it started."""
    try:
        await broker.start()
    except VelocityError as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return False
    await send({"type": "lifespan.startup.complete"})
    return True


def _who(session: Session) -> str:
    return printable(session.client.remote_addr) or "a client without an address"


def _fields(session: Session) -> dict[str, str]:
    return {"client_id": session.id, "remote_addr": session.client.remote_addr}
