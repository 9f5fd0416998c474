"""Many clients that need no socket: they come, are in rooms, and count or keep what they are told."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import HTTPConnection

from velocity_ws import Broker
from velocity_ws.close import Close
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.sessions.session import Session


class Ear:
    """An outbox whose client takes everything at once, and counts it."""

    has_ended = is_free = True

    def __init__(self, member: Extra) -> None:
        self.member = member

    def offer(self, message: PreparedMessage) -> bool:
        self.member.heard(message)
        return True

    async def put(self, message: PreparedMessage | None, seconds: float) -> bool:
        return message is None or self.offer(message)

    def close(self, code: int, reason: str, *, discard: bool = False) -> None:
        self.member.leave()

    def abort(self) -> None: ...

    async def wait_ended(self) -> None: ...

    async def ping(self) -> float | None:
        return None


class Extra:
    """A client without a socket. Made on the broker's loop.

    Attributes:
        bytes: how much it was told.
        messages: in how many messages.
        largest: the bytes of the largest.
        events: what it was told, decoded; only where it is asked to look.
        users: the clients of each user in its room, as a page adds up presence; only where it is asked to look.
        infos: what is said of them.
        last: the last event of presence.
    """

    def __init__(self, broker: Broker, user: Any = None, *, looks: bool = False) -> None:
        scope = {"type": "http", "path": "/", "query_string": b"", "headers": [], "client": ("192.0.2.1", 1)}
        node = broker.node
        self.bytes = self.messages = self.largest = 0
        self.events: list[Any] = []
        self.users: dict[str, int] = {}
        self.infos: dict[str, Any] = {}
        self.last: dict[str, Any] = {}
        self._looks = looks
        self.session = Session(node.context, HTTPConnection(scope))
        self.session.client.identify(user, node.users.id_of(user), None)
        self.session.open(Ear(self))
        self.session._transport_task = None  # it has none of its own

    @property
    def id(self) -> str:
        """The client's."""
        return self.session.id

    def heard(self, message: PreparedMessage) -> None:
        """It was told something."""
        self.bytes += message.size
        self.messages += 1
        self.largest = max(self.largest, message.size)
        if self._looks:
            event = msgspec.json.decode(message.payload)
            self.events.append(event)
            if event["event"] == "presence":
                self._add(event["data"])

    def _add(self, data: dict[str, Any]) -> None:
        if data["full"]:
            self.users, self.infos = {}, {}
        for user, count in data["users"].items():
            if count:
                self.users[user] = count
            else:
                self.users.pop(user, None)
            self.infos.pop(user, None)
            if user in data.get("info", {}):
                self.infos[user] = data["info"][user]
        self.last = data

    def leave(self) -> None:
        """Hang up."""
        self.session.finish_now(Close(1000, "", "client"))
