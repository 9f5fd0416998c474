"""Lifecycle: how a broker starts, and how it stops with all its connections. Knows no message, room, user or engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from velocity_ws.close import SHUTTING_DOWN
from velocity_ws.cluster.places import taking_place
from velocity_ws.concurrency.portal import Portal, end_now
from velocity_ws.errors import BrokerError
from velocity_ws.logs import get_logger
from velocity_ws.sessions.client import Client, describe
from velocity_ws.sessions.session import Session

__all__ = ["Aside", "Lifecycle"]

log = get_logger("velocity_ws.broker")

ABORT_GRACE = 0.5
"""Seconds that aborted connections have to end, before what they still run is cancelled."""
HURRIED_GRACE = 0.1
"""Seconds for each step of stopping, where it is hurried."""


class Parts(Protocol):
    """What starts and stops with a broker. On the broker's loop only."""

    def set_up(self) -> None:
        """Make what a running broker needs, without waiting."""

    async def begin(self) -> None:
        """Connect to the other nodes, where there are any."""

    def stop_soon(self) -> None:
        """Tell the other nodes that this one is going to stop."""

    async def end(self) -> None:
        """End all of it, when the last connection is over."""

    def let_go(self) -> None:
        """Let go of what a stopped broker does not need, also where its end has failed."""

    def abandon(self) -> None:
        """Forget all of it: its loop was closed, and nothing of it can end by itself."""


class Aside(Protocol):
    """The hooks that run for no connection. On the broker's loop only."""

    def runs(self, task: asyncio.Task[object] | None) -> bool:
        """Whether that task runs one of them now."""

    async def finish(self, seconds: float, grace: float) -> set[asyncio.Task[None]]:
        """Wait for them, then cancel them and wait for the grace; the tasks of those that still run."""

    def cancel(self) -> None:
        """Cancel those that run now."""


class Lifecycle:
    """When a broker runs, and which connections it has to end. On the broker's loop only.

    Attributes:
        name: the broker's.
        place: the engine and the name on it; ``None`` where it has none.
        is_twin: whether it may share its place.
        sessions: every connection that was accepted and has not ended.
        stragglers: hooks that swallowed their cancellation, until they end.
        is_leaving: whether its server has begun to stop, and waits for the answers that are open.
        handshakes: the deadlines of handshakes that wait for a request, a hook or an answer to be sent.
    """

    def __init__(
        self,
        parts: Parts,
        aside: Aside,
        portal: Portal,
        clock: Callable[[], float],
        *,
        name: str,
        place: str | None,
        is_twin: bool,
        drain_timeout: float,
    ) -> None:
        """
        Args:
            parts: what starts and stops with it.
            aside: the hooks that run for no connection.
            portal: gets the loop, and loses it.
            clock: seconds, never going back.
            name: the broker's.
            place: see the attribute.
            is_twin: see the attribute.
            drain_timeout: seconds that connections have to end by themselves.
        """
        self._parts = parts
        self._aside = aside
        self._portal = portal
        self._clock = clock
        self.name = name
        self.place = place
        self.is_twin = is_twin
        self._drain_timeout = drain_timeout
        self.sessions: dict[Session, None] = {}  # which takes less than a set: 30 bytes for each, and not up to 105
        self.stragglers: set[asyncio.Task[None]] = set()
        self.is_leaving = False
        self.handshakes: set[asyncio.Timeout] = set()
        self._started_at: float | None = None
        self._stopped_loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._emptied: asyncio.Event | None = None
        self._is_hurried = False

    @property
    def is_running(self) -> bool:
        """Whether connections are taken: started, on a loop that is still open, and not stopping."""
        return self._started_at is not None and self._stopping is None and self._portal.loop is not None

    @property
    def has_begun(self) -> bool:
        """Whether it is started, on a loop of this process that is still open; stopping is part of it."""
        return self._started_at is not None and self._portal.loop is not None

    @property
    def uptime(self) -> float:
        """Seconds since the start; 0 where it is not running."""
        return 0.0 if self._started_at is None else self._clock() - self._started_at

    # --- start

    async def start(self) -> None:
        """Begin on the running loop.

        Raises:
            BrokerError: it runs on another loop, or is stopping, or another broker of this process has its place.
        """
        loop = asyncio.get_running_loop()
        if self.has_begun:
            if self._portal.loop is not loop:
                raise BrokerError(
                    "the broker runs on another event loop; stop it there first, or use a broker for each loop "
                    "(with Starlette's TestClient: `with TestClient(app) as client`)"
                )
            if self._stopping is not None:
                raise BrokerError("the broker is stopping; await stop() before start()")
            return
        if self._started_at is not None:
            self._abandon()
        with taking_place(self):
            self._portal.settle(loop)
            self._stopped_loop = None
            self._started_at = self._clock()
        self._parts.set_up()
        await self._parts.begin()

    @property
    def is_started_here(self) -> bool:
        """Whether it is started, on the loop that is running, so that `ensure_started` has nothing to do."""
        if self._started_at is None or self._stopped_loop is not None:
            return False
        return self._portal.loop is asyncio.get_running_loop()

    async def ensure_started(self) -> None:
        """Start where nobody has.

        Raises:
            BrokerError: it runs on another loop, or was stopped and not started again.
        """
        if self._stopped_loop is not None and not self._stopped_loop.is_closed():
            raise BrokerError("the broker was stopped; start() makes it take connections again")
        if not self.is_started_here:
            await self.start()

    def _abandon(self) -> None:
        self._parts.abandon()
        self.sessions.clear()
        self.stragglers.clear()
        self.handshakes.clear()

    # --- stop

    async def stop(self) -> None:
        """End, once. Other callers wait for the same end; but a hook does not, as it must end first itself."""
        if self._started_at is None or self._portal.loop is not asyncio.get_running_loop():
            self._started_at = None
            self._portal.settle(None)
            return
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._shut_down())
        here = asyncio.current_task()
        if self._aside.runs(here) or any(session.runs(here) for session in self.sessions):
            return  # a hook, which would wait for its own end
        await asyncio.shield(self._stopping)

    def hurry(self) -> None:
        """Abort every connection, and let stopping, now or later, wait for nothing."""
        self._is_hurried = True
        for session in list(self.sessions):
            session.abort(hurry=True)
        self._aside.cancel()
        if self._emptied is not None:
            self._emptied.set()

    async def _shut_down(self) -> None:
        self._parts.stop_soon()
        until = asyncio.get_running_loop().time() + self._drain_timeout
        try:
            await self._end_sessions()
            await asyncio.gather(self._abort_sessions(), self._finish(until))
            self._disown_stragglers()
            await self._parts.end()
        finally:
            self._parts.let_go()
            self._stopping = None
            self._is_hurried = self.is_leaving = False
            self._stopped_loop = self._portal.loop
            self._started_at = None
            self._portal.settle(None)

    async def _end_sessions(self) -> None:
        """Close every connection in order; in the second half of the time cancel its handler."""
        half = self._drain_timeout / 2
        for handshake in list(self.handshakes):
            end_now(handshake)
        for session in list(self.sessions):
            session.close(SHUTTING_DOWN, handle="arrived")
        await self._emptied_within(half)
        for session in list(self.sessions):
            session.close(SHUTTING_DOWN, handle="nothing")
        await self._emptied_within(half)

    async def _finish(self, until: float) -> None:
        """Wait for hooks that run for no connection, as long as connections may take; keep those that do not end."""
        seconds, grace = max(until - asyncio.get_running_loop().time(), 0.0), ABORT_GRACE
        if self._is_hurried:
            seconds, grace = 0.0, HURRIED_GRACE
        for task in await self._aside.finish(seconds, grace):
            self.stragglers.add(task)
            task.add_done_callback(self.stragglers.discard)

    async def _abort_sessions(self) -> None:
        """Abort the connections that have not ended."""
        for _ in range(2):  # the second time for hooks that run because of the first
            for session in list(self.sessions):
                session.abort()
            await self._emptied_within(ABORT_GRACE)

    def _disown_stragglers(self) -> None:
        if self.sessions or self.stragglers:
            counts = len(self.sessions), len(self.stragglers)
            log.error("stopped with %d connections and %d handlers that ignored their cancellation", *counts)
        endings = [session.end_task for session in self.sessions if session.end_task is not None]
        for task in [*self.stragglers, *endings]:  # a server that ends its loop would wait for them, and for ever
            asyncio._unregister_task(task)  # documented for those who implement tasks

    async def _emptied_within(self, seconds: float) -> None:
        """Wait for every connection to end, for so long at most."""
        if self._is_hurried:
            seconds = min(seconds, HURRIED_GRACE)
        if self.sessions:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._emptied.wait()

    # --- what sessions tell

    def forget(self, session: Session) -> None:
        """A session has ended."""
        self.sessions.pop(session, None)
        if self._emptied is not None and not self.sessions:
            self._emptied.set()

    def leave_behind(self, task: asyncio.Task[None], client: Client) -> None:
        """A hook swallowed its cancellation. Its client must not wait for it; it is kept until it ends."""
        log.error("a handler goes on after it was cancelled (%s)", describe(client))
        self.stragglers.add(task)
        task.add_done_callback(self.stragglers.discard)
