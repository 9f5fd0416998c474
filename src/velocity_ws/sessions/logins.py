"""Logins: when the logins of clients end: the client is told, has time to renew its own, and is closed.

The wall clock is read when a login comes, and never again: where it jumps, nothing moves. Knows no user, hook or room.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from velocity_ws.close import SESSION_EXPIRED, Goodbye
from velocity_ws.concurrency.schedule import Schedule
from velocity_ws.errors import LoginExpired
from velocity_ws.messages.events import encode_session, encode_session_expired
from velocity_ws.messages.outbound import PreparedMessage

__all__ = ["Login", "LoginSession", "Logins"]


@dataclass(frozen=True, slots=True)
class Login:
    """A login that ends.

    Attributes:
        expires_at: when, in UTC, as the application said it.
        due: when, in seconds of the broker's clock.
    """

    expires_at: datetime
    due: float


class LoginSession(Protocol):
    """A session of a client that may be logged in. On the broker's loop only."""

    @property
    def login(self) -> Login | None:
        """The client's login, if it ends."""

    @property
    def token(self) -> str | None:
        """What the client proves its earlier ids with the next time; ``None`` where it has asked for none."""

    @property
    def asks_to_renew(self) -> bool:
        """Whether a message waits to be handled by which the client asks to renew its login."""

    def offer(self, message: PreparedMessage) -> bool:
        """Queue a message for the client; return whether it was queued."""

    def close(self, goodbye: Goodbye) -> None:
        """Close the connection once everything queued has been sent."""


S = TypeVar("S", bound=LoginSession)


class Logins(Generic[S]):
    """The logins of one node's clients that end. One timer serves all of them. On the broker's loop only."""

    def __init__(self, clock: Callable[[], float], grace: float, wall_clock: Callable[[], float] = time.time) -> None:
        """
        Args:
            clock: seconds, never going back.
            grace: seconds that a client has to renew a login that has ended.
            wall_clock: seconds since the epoch.
        """
        self._clock = clock
        self._grace = grace
        self._wall_clock = wall_clock
        self._schedule: Schedule[S] | None = None  # most brokers never need one
        self._told: dict[S, bool] = {}  # those that have ended; whether the time to renew was prolonged
        self._renewing: set[S] = set()
        self._expired = encode_session_expired()

    def __len__(self) -> int:
        return 0 if self._schedule is None else len(self._schedule)

    def end(self) -> None:
        """Forget all of them; other logins may come later, on another loop."""
        if self._schedule is not None:
            self._schedule.stop()
            self._schedule = None
        self._told.clear()
        self._renewing.clear()

    def new(self, expires_at: datetime | None) -> Login | None:
        """A login that begins now, by the wall clock; ``None`` where it does not end.

        Raises:
            LoginExpired: it has ended already.
        """
        if expires_at is None:
            return None
        seconds = expires_at.timestamp() - self._wall_clock()
        if seconds <= 0:
            raise LoginExpired(-seconds)
        return Login(expires_at, self._clock() + seconds)

    def watch(self, session: S) -> None:
        """Watch the login that a session has now, in place of one before."""
        login = session.login
        if login is None:
            self.forget(session)
            return
        self._told.pop(session, None)
        self._start(session, login.due)

    def forget(self, session: S) -> None:
        """Watch a session's login no more; harmless where it is not watched."""
        self._told.pop(session, None)
        if self._schedule is not None:
            self._schedule.cancel(session)

    def welcome(self, session: S, greeting: Coroutine[Any, Any, bool] | None) -> Coroutine[Any, Any, bool]:
        """A session opens whose login ends: watch it, and have the client know after its greeting.

        Args:
            session: the session.
            greeting: the ``on_connect`` hooks, if any, which tell whether all went well.

        Returns:
            What to run in place of the greeting, and tells the same.
        """
        self.watch(session)
        return self._greet(session, greeting)

    async def _greet(self, session: S, greeting: Coroutine[Any, Any, bool] | None) -> bool:
        if greeting is not None and not await greeting:
            return False
        if session.login is not None and session not in self._told:
            self.tell(session)
        return True

    def tell(self, session: S) -> float | None:
        """Tell a client when its login ends; return what it was told: seconds, or ``None`` for never."""
        left = self.left(session)
        session.offer(encode_session(left, session.token))
        return left

    def left(self, session: S) -> float | None:
        """When a client's login ends: in how many seconds, or ``None`` for never."""
        login = session.login
        return None if login is None else math.floor(1000 * max(0.0, login.due - self._clock())) / 1000

    @contextmanager
    def renewing(self, session: S) -> Iterator[None]:
        """The time in which it is decided whether a session's login is renewed.

        A client is not closed meanwhile, for as long again as it had to renew its login: it has asked in time.
        """
        self._renewing.add(session)
        try:
            yield
        finally:
            self._renewing.discard(session)
            if self._told.get(session):  # it was not renewed, and its time is over
                self._start(session, self._clock())

    def _start(self, session: S, due: float) -> None:
        if self._schedule is None:
            self._schedule = Schedule(asyncio.get_running_loop(), self._clock, self._act)
        self._schedule.start(session, due)

    def _act(self, session: S) -> None:
        is_prolonged = self._told.get(session)
        if is_prolonged or (is_prolonged is False and session not in self._renewing and not session.asks_to_renew):
            session.close(SESSION_EXPIRED)
            return
        self._told[session] = is_prolonged is not None
        self._start(session, self._clock() + self._grace)
        if is_prolonged is None:
            session.offer(self._expired)  # which may end it
