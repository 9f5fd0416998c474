"""Admission: may this connection come in, and as whom: limits, origin, authentication, in time. Knows no ASGI event."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn

from starlette.requests import HTTPConnection

from velocity_ws.asgi.proxies import AddressCheck
from velocity_ws.broker.node import Node
from velocity_ws.concurrency.eager import first_step
from velocity_ws.errors import LoginExpired, Reject
from velocity_ws.logs import MAX_QUOTED, RateLimitedWarnings, get_logger, printable, quote
from velocity_ws.origins import Origin, OriginPattern, is_same_origin
from velocity_ws.sessions.accept import Accept
from velocity_ws.sessions.session import Session
from velocity_ws.sessions.transport import Transport

__all__ = ["Admission", "fields_of"]

log = get_logger("velocity_ws.asgi")

_HOW_TO_ALLOW_HOSTLESS = (
    "sandboxed frames, local files and some embedded browsers have it, no matter who wrote the page; it belongs to no "
    "host, so that a proxy's Host does not matter; add it to WS_ALLOWED_ORIGINS to allow it"
)
_OF_ORIGIN = (b"origin", b"host")
"""The headers that say whether a page may come in."""
MAX_ORIGINS = 100
"""Pairs of an origin and a host of which it is kept that they were logged, and of which it is kept that they are
allowed: those of most clients of a server are the same."""
MAX_ORIGIN_SIZE = 512
"""Bytes of a pair of which it is kept that it is allowed."""


class Admission:
    """Lets the clients of one broker in, whatever transport carries them. On the broker's loop only.

    Attributes:
        addresses: looks at clients' addresses; ``None`` where there is no limit for each.
    """

    def __init__(self, node: Node) -> None:
        settings = node.settings
        self._node = node
        self._origins = [OriginPattern.parse(text) for text in settings.allowed_origins]
        self._any_origin = any(pattern.origin is None for pattern in self._origins)
        self._warnings = RateLimitedWarnings(log)
        self._refused_origins: set[tuple[str, str]] = set()
        self._allowed: dict[tuple[tuple[bytes, bytes], ...], None] = {}
        self.addresses = AddressCheck() if settings.max_connections_per_ip else None

    async def admit(self, session: Session, full: str | None, transport: Transport) -> bool:
        """Answer a handshake: accept or refuse it, within ``WS_HANDSHAKE_TIMEOUT``.

        Args:
            session: of the client, not yet open.
            full: the setting whose limit of connections is reached, or ``None``.
            transport: carries the client.

        Returns:
            Whether it was accepted. If not, it is counted.
        """
        node = self._node
        try:
            transport.configure(node.settings)
            deadline = asyncio.Timeout(None)
            letting_in: Awaitable[None] = self._let_in(session, full, transport, deadline)
            if transport.accepts_at_once:
                begun = first_step(letting_in)
                if begun is None:  # most often nothing has to wait, and needs no deadline
                    return True
                letting_in = begun
            async with deadline:
                began = asyncio.get_running_loop().time() if transport.accepted_at is None else transport.accepted_at
                deadline.reschedule(began + node.settings.handshake_timeout)
                node.lifecycle.handshakes.add(deadline)
                try:
                    await letting_in
                    return True
                finally:
                    node.lifecycle.handshakes.discard(deadline)
        except Reject as refusal:
            reject = refusal
        except TimeoutError:
            reject = Reject("shutting down", status=503)
            if node.lifecycle.is_running:
                reject = Reject("the handshake took too long", status=503)
                late = "handshake of %s refused: it took longer than WS_HANDSHAKE_TIMEOUT"
                self._warnings.warn(late, _who(session), extra=fields_of(session))
        except OSError:  # the client has gone; there is nobody to answer
            node.counters.rejected += 1
            return False
        try:
            selected = None if reject.code is None else self._select_subprotocol(session)
            await self._send_refusal(reject, transport, selected)
        finally:
            del reject  # which refers to this frame, and to all that is in it
        node.counters.rejected += 1
        return False

    async def refuse(self, reject: Reject, transport: Transport) -> None:
        """Begin a handshake and refuse it, each in time; harmless where the client has gone."""
        with suppress(OSError):  # gone or late, which is for the refusal to find out
            async with asyncio.timeout(self._node.settings.handshake_timeout):
                await transport.begin()
        await self._send_refusal(reject, transport, None)

    async def _send_refusal(self, reject: Reject, transport: Transport, subprotocol: str | None) -> None:
        """Tell a client that it may not come in, in time; harmless where it has gone."""
        try:
            async with asyncio.timeout(self._node.settings.handshake_timeout):
                await transport.refuse(reject, subprotocol)
        except OSError:
            log.debug("the client had gone before it could be refused")

    async def _let_in(
        self, session: Session, full: str | None, transport: Transport, deadline: asyncio.Timeout
    ) -> None:
        await transport.begin()
        self._check(session, full)
        accept = None
        if self._asks:
            accept = await self._ask(session)
            if not self._node.lifecycle.is_running:
                raise Reject("shutting down", status=503)
        if deadline.expired():  # and a hook has swallowed it
            raise TimeoutError
        await self._accept(session, transport, accept)

    def _accept(self, session: Session, transport: Transport, accept: Accept | None) -> Awaitable[object]:
        """What to await to accept a client."""
        selected = None
        if session.client.request.scope.get("subprotocols"):
            selected = self._select_subprotocol(session, None if accept is None else accept.subprotocol)
            if selected is not None:
                session.client.subprotocol = selected
        return transport.accept(selected, [] if accept is None else accept.headers)

    async def identify(self, session: Session) -> None:
        """Find out who sends a request that is no handshake, by the same rules, and with the same hooks.

        Raises:
            Reject: it may not come in.
        """
        self._check(session, None)
        if self._asks:
            await self._ask(session)

    async def allows(self, request: HTTPConnection, origin: str) -> bool:
        """Whether the page of an origin may read what a request is answered, by the rules of a handshake."""
        settings = self._node.settings
        if settings.check_origin is not None:
            try:
                async with asyncio.timeout(settings.handshake_timeout):
                    return bool(await self._ask_check(settings.check_origin, request))
            except Exception:  # the application's, of whatever kind
                log.debug("check_origin failed, which is told where a request is let in", exc_info=True)
                return False
        parsed = Origin.parse(origin)
        return self._any_origin or (parsed is not None and self._matches(parsed, request))

    @staticmethod
    async def _ask_check(check: Callable[[HTTPConnection], object], request: HTTPConnection) -> object:
        allowed = check(request)
        return await allowed if inspect.isawaitable(allowed) else allowed

    def _matches(self, origin: Origin, request: HTTPConnection) -> bool:
        """Whether an origin is that of the server, or one of ``WS_ALLOWED_ORIGINS``."""
        hosts = request.headers.getlist("host")
        return is_same_origin(origin, hosts) or any(pattern.matches(origin) for pattern in self._origins)

    @property
    def _asks(self) -> bool:
        """Whether the application is asked about a request."""
        return self._node.settings.check_origin is not None or self._node.dispatcher.has("authenticate")

    async def _ask(self, session: Session) -> Accept | None:
        """Ask the application about a request; what is to be said with the acceptance, if anything."""
        if self._node.settings.check_origin is not None:
            await self._ask_origin(session, self._node.settings.check_origin)
        return await self._identify(session) if self._node.dispatcher.has("authenticate") else None

    def _check(self, session: Session, full: str | None) -> None:
        """
        Raises:
            Reject: the connection is not to be accepted.
        """
        node = self._node
        if not node.lifecycle.is_running:
            raise Reject("shutting down", status=503)
        if full is not None:
            node.hints.full(full, _who(session), fields_of(session))
            raise Reject("too many connections", status=503)
        if node.settings.check_origin is None:  # else the application is asked
            self._check_origin(session)

    async def _identify(self, session: Session) -> Accept | None:
        """Find out who it is; what is to be said with the acceptance, if anything."""
        node, client = self._node, session.client
        user = await node.dispatcher.authenticate(client)
        accept: Accept | None = None
        if isinstance(user, Accept):
            accept, user = user, user.user
        if user is None:
            return accept
        try:
            user_id = node.users.id_of(user)
        except Exception as error:
            await node.dispatcher.report(client, error, of_stranger=True)
            raise Reject("authentication failed", status=500) from None
        try:
            login = None if accept is None else node.logins.new(accept.expires_at)
        except LoginExpired as error:
            late = "handshake of %s refused: authenticate let it in with a login that was over %.3f s ago"
            self._warnings.warn(late, _who(session), error.seconds, extra=fields_of(session))
            raise Reject("session expired", status=401) from None
        client.identify(user, user_id, login)
        await node.users.expect(session)
        return accept

    async def _ask_origin(self, session: Session, check: Callable[[HTTPConnection], object]) -> None:
        try:
            allowed = await self._ask_check(check, session.client.request)
        except Exception as error:
            await self._node.dispatcher.report(session.client, error, of_stranger=True)
            raise Reject("origin check failed", status=500) from None
        if not allowed:
            self._refuse_origin(session, "check_origin refused it")

    def _check_origin(self, session: Session) -> None:
        request = session.client.request
        # Not by its `headers`, which most hooks never ask for.
        asked = tuple([(name, value) for name, value in request.scope["headers"] if name in _OF_ORIGIN])
        if self._any_origin or asked in self._allowed:
            return
        values = [value.decode("latin-1") for name, value in asked if name == b"origin"]
        if not values and self._node.settings.allow_missing_origin:
            return
        if not values:
            self._refuse_origin(session, "it has none; WS_ALLOW_MISSING_ORIGIN=true would allow that")
        origin = Origin.parse(values[0]) if len(values) == 1 else None
        if origin is None:
            self._refuse_origin(session, "that is not one origin; only WS_ALLOWED_ORIGINS=* would allow it")
        if not self._matches(origin, request):
            how = self._how_to_allow(values[0][:MAX_QUOTED]) if origin.host else _HOW_TO_ALLOW_HOSTLESS
            self._refuse_origin(session, how)
        if sum([len(value) for _, value in asked]) <= MAX_ORIGIN_SIZE:
            if len(self._allowed) >= MAX_ORIGINS:
                del self._allowed[next(iter(self._allowed))]
            self._allowed[asked] = None

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
            log.debug(what, _who(session), origin, host, why, extra=fields_of(session))
        else:
            self._warnings.warn(what, _who(session), origin, host, why, extra=fields_of(session))
            if len(self._refused_origins) < MAX_ORIGINS:
                self._refused_origins.add((origin, host))
        raise Reject("origin not allowed")

    def _select_subprotocol(self, session: Session, second_choice: str | None = None) -> str | None:
        """The first that the client offers and WS_SUBPROTOCOLS has: what is not listed may be a token. Else the second
        choice, if that is offered: a client fails a connection with one that it has not named (RFC 6455, section 4.1).
        """
        offered = session.client.request.scope.get("subprotocols")
        if not offered:
            return None
        selected = next((name for name in offered if name in self._node.settings.subprotocols), None)
        if selected is None and second_choice in offered:
            selected = second_choice
        if selected is None:
            self._node.hints.no_subprotocol_fits()
        return selected


def fields_of(session: Session) -> dict[str, str]:
    """What a line of the log has beside its text."""
    return {"client_id": session.id, "remote_addr": session.client.remote_addr}


def _who(session: Session) -> str:
    return printable(session.client.remote_addr) or "a client without an address"
