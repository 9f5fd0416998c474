"""Announcing: connections that say first what they have of streams, where no room has a history. Knows no stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from velocity_ws.concurrency.schedule import Schedule
from velocity_ws.messages.events import REPLY
from velocity_ws.messages.inbound import Malformed, decode, head_of
from velocity_ws.messages.outbound import PreparedMessage, encode
from velocity_ws.sessions.resume import First, Resume
from velocity_ws.sessions.session import Session

__all__ = ["Announcing"]

PATIENCE = 1.0
"""Seconds in which a connection may say what it has."""


class Announcing:
    """The connections of a node that have announced it, with ``?resume=1``. On the broker's loop only."""

    def __init__(
        self, said: Callable[[Session, Mapping[str, Any]], None], clock: Callable[[], float], largest: int
    ) -> None:
        """
        Args:
            said: told what a connection has said; nothing, where it has said nothing in time.
            clock: seconds, never going back.
            largest: bytes of the largest message of a client.
        """
        self._said = said
        self._clock = clock
        self._largest = largest
        self._schedule: Schedule[Session] | None = None
        self._waiting: dict[Session, bool] = {}  # whether it has come, and is still to be handled

    def stop(self) -> None:
        """Wait for nobody any more."""
        if self._schedule is not None:
            self._schedule.stop()
            self._schedule = None
        self._waiting.clear()

    def waits(self, session: Session) -> bool:
        """Whether a connection may still say what it has."""
        return session in self._waiting

    def welcome(self, session: Session, greeting: Coroutine[Any, Any, bool] | None) -> Coroutine[Any, Any, bool] | None:
        """See `NodeContext.welcome`."""
        request = session.client.request
        if b"resume=1" not in request.scope["query_string"] or request.query_params.get("resume") != "1":
            return greeting
        if self._schedule is None:
            self._schedule = Schedule(asyncio.get_running_loop(), self._clock, self._due)
        self._waiting[session] = False
        self._schedule.start(session, self._clock() + PATIENCE)
        session.inbox.first = First(lambda payload: self._takes(session, payload), self._largest)
        return greeting

    def _takes(self, session: Session, payload: str | bytes) -> bool:
        head = head_of(payload) if isinstance(payload, str) and "resume" in payload else None
        if head is not None and head.event == "resume":
            if session in self._waiting:
                self._waiting[session] = True
            return True
        self._late(session)
        return False

    def _due(self, session: Session) -> None:
        """Its time is over, unless what it has said waits for its ``on_connect`` hooks."""
        if self._waiting.get(session) and session.is_connected and self._schedule is not None:
            self._schedule.start(session, self._clock() + PATIENCE)
        else:
            self._late(session)

    def _late(self, session: Session, said: Mapping[str, Any] | None = None) -> None:
        if self._schedule is not None:
            self._schedule.cancel(session)
        if session in self._waiting:
            del self._waiting[session]
            self._said(session, said or {})

    async def resume(self, session: Session, payload: Resume) -> PreparedMessage | None:
        """See `NodeContext.resume`."""
        message = decode(payload.decode())
        if isinstance(message, Malformed):
            self._late(session)
            return None
        self._late(session, message.data if isinstance(message.data, dict) else {})
        return None if message.id is None else encode(REPLY, {}, message.id)
