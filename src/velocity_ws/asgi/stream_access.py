"""Stream access: who may read or write streams over HTTP: programs with a key, and those who may be in a stream's room.

Knows no stream's content.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from velocity_ws.asgi.admission import Admission
from velocity_ws.broker.node import Node
from velocity_ws.errors import ClientError, Reject
from velocity_ws.limits import RateLimiter
from velocity_ws.sessions.session import Session

__all__ = ["Access", "Visitor"]

CHALLENGE = {"www-authenticate": "Bearer"}
MOST_READERS: Final = 10_000
"""Readers without a key whose rates are known."""


class Visitor:
    """Who sent a request.

    Attributes:
        has_key: whether it is a program with a key, which may do anything.
        name: what its waiting requests are counted by.
        user_id: its user; ``None`` for none.
    """

    def __init__(self, session: Session | None, name: str) -> None:
        self.has_key = session is None
        self.name = name
        self.user_id = None if session is None else session.user_id
        self._session = session

    async def may_read(self, node: Node, room: str | None) -> bool:
        """Whether it may read the streams of a room; ``None`` for those of no room, which only keys read.

        Raises:
            ClientError: the room's ``authorize`` could not say.
        """
        if self._session is None:
            return True
        if room is None:
            return False
        try:
            await node.authorization.ask(self._session, room)
        except ClientError as error:
            if error.code == "INTERNAL_ERROR":
                raise
            return False
        return True


class Access:
    """Lets requests in. On the broker's loop only."""

    def __init__(self, node: Node, admission: Admission) -> None:
        self._node = node
        self._admission = admission
        self._keys = [key.encode() for key in node.settings.api_keys]
        self._rates: OrderedDict[str, RateLimiter] = OrderedDict()

    @property
    def has_keys(self) -> bool:
        """Whether there are keys, without which nobody writes."""
        return bool(self._keys)

    def has_key(self, headers: Headers, *, is_read: bool) -> bool:
        """Whether a request has a key.

        Args:
            headers: of the request.
            is_read: whether it only reads, which users do, too.

        Raises:
            Reject: it has one that is none.
        """
        given = headers.get("x-api-key")
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        is_bearer = given is None and scheme.lower() == "bearer" and self.has_keys
        if is_bearer:
            given = credentials.strip()
        if given is None:
            return False
        may_be_users = is_read and self._node.dispatcher.has("authenticate")
        if not self._keys:
            if may_be_users:
                return False
            raise Reject("this server has no keys: WS_API_KEYS is not set there", status=403)
        said = given.encode("utf-8", "surrogateescape")
        # All of them are compared, each in constant time, so that nothing tells which one it is nearly.
        if True in [hmac.compare_digest(said, key) for key in self._keys]:
            return True
        if is_bearer and may_be_users:
            return False
        raise Reject("this is no key of WS_API_KEYS", status=401, headers=CHALLENGE)

    @asynccontextmanager
    async def visit(self, request: HTTPConnection, *, is_read: bool) -> AsyncIterator[Visitor]:
        """Let a request in, for as long as the block.

        Args:
            request: the request.
            is_read: whether it only reads; others need a key.

        Raises:
            Reject: it may not come in.
        """
        client = request.client
        address = client.host if client is not None else ""
        if self.has_key(request.headers, is_read=is_read):
            yield Visitor(None, f"key {address}")
            return
        if not is_read:
            if not self.has_keys:
                raise Reject("streams are written with a key of WS_API_KEYS, which is not set", status=403)
            raise Reject("streams are written with a key of WS_API_KEYS", status=401, headers=CHALLENGE)
        node = self._node
        # What a hook asks of each handshake is there, too, and empty.
        session = Session(node.context, HTTPConnection({"subprotocols": [], **request.scope}))
        try:
            try:
                async with asyncio.timeout(node.settings.handshake_timeout):
                    await self._admission.identify(session)
            except TimeoutError:
                raise Reject("authentication took too long", status=503) from None
            visitor = Visitor(session, f"address {address}" if session.user_id is None else f"user {session.user_id}")
            self._check_rate(visitor.name)
            yield visitor
        finally:
            session.detach()
            if node.users.expected:
                node.users.expect_no_more(session)

    def _check_rate(self, name: str) -> None:
        """Let a reader without a key ask as often as it may send messages.

        Raises:
            Reject: it asks too often.
        """
        settings = self._node.settings
        if not settings.rate_limit:
            return
        rate = self._rates.get(name)
        if rate is not None:
            self._rates.move_to_end(name)
        else:
            rate = self._rates[name] = RateLimiter(
                settings.rate_limit, settings.rate_burst, asyncio.get_running_loop().time
            )
            if len(self._rates) > MOST_READERS:
                self._rates.popitem(last=False)
        seconds = rate.acquire()
        if seconds:
            raise Reject("too many requests", status=429, headers={"retry-after": str(max(1, round(seconds)))})
