"""Node: what all connections of one broker share, and how they begin and end together. Knows no ASGI and no server."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

from velocity_ws.backplane import create_backplane
from velocity_ws.backplane.urls import ALONE, engine_of, split_url
from velocity_ws.broker.directory import Directory
from velocity_ws.broker.presence import Presence
from velocity_ws.broker.users import Users
from velocity_ws.cluster.cluster import Cluster
from velocity_ws.cluster.options import ClusterOptions
from velocity_ws.cluster.places import taking_place
from velocity_ws.cluster.topics import prefix_of
from velocity_ws.concurrency.eager import TaskPool
from velocity_ws.concurrency.portal import Portal, end_now
from velocity_ws.delivery.fanout import fan_out
from velocity_ws.delivery.transport_outbox import Flusher
from velocity_ws.errors import BackplaneUnavailable, BrokerError
from velocity_ws.hooks.registry import Hooks
from velocity_ws.limits import ConnectionLimits
from velocity_ws.logs import get_logger
from velocity_ws.messages.address import Address
from velocity_ws.messages.ids import new_node_id
from velocity_ws.messages.names import validate_text
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.process.descriptors import prepare
from velocity_ws.sessions.client import Client, describe
from velocity_ws.sessions.client_session import Gone
from velocity_ws.sessions.context import NodeContext
from velocity_ws.sessions.dispatch import Dispatcher
from velocity_ws.sessions.hints import Hints
from velocity_ws.sessions.hub import Hub, Kind
from velocity_ws.sessions.pacing import Pace
from velocity_ws.sessions.session import Session
from velocity_ws.settings import Settings
from velocity_ws.stats import UNATTRIBUTED, Counters, Stats

__all__ = ["Node"]

log = get_logger("velocity_ws.node")

NOBODY = Address("clients")
ABORT_GRACE = 0.5
"""Seconds that aborted connections have to end, before what they still run is cancelled."""
HURRIED_GRACE = 0.1
"""Seconds for each step of stopping, where it is hurried."""


class Node:
    """One process's share of the clients. Used on the broker's loop only, but for `portal`."""

    def __init__(
        self,
        settings: Settings,
        hooks: Hooks,
        clock: Callable[[], float],
        user_id: Callable[[Any], str | int | None],
        has_presence: Callable[[str], bool] | None,
        name: str,
        is_twin: bool,
    ) -> None:
        url = settings.backplane_url
        self.name = name
        self.is_twin = is_twin
        self._prefix = prefix_of(split_url(url)[1], name)
        self.place = None if url.startswith(ALONE) else f"{engine_of(url)} {self._prefix}"
        self.settings = settings
        self._clock = clock
        self._has_presence = has_presence
        self.portal = Portal()
        self.counters = Counters()
        self._unattributed = UNATTRIBUTED.rejected
        self.hub: Hub[Session] = Hub(self._fan_out, self)
        self.hints = Hints(settings)
        self.dispatcher = Dispatcher(hooks, self.counters, self.hints)
        self.users = Users(user_id, self.hub, self.hints)
        node_id = new_node_id()
        self.directory = Directory(node_id, self.hub, self.stats)
        self.context = self._new_context(node_id)
        self.connection_limits = ConnectionLimits(settings.max_connections, settings.max_connections_per_ip)
        self.sessions: set[Session] = set()
        self.stragglers: set[asyncio.Task[None]] = set()
        self.handshakes: set[asyncio.Timeout] = set()
        self.cluster: Cluster | None = None
        self._is_alone = url == ALONE
        if not self._is_alone:
            create_backplane(url)  # what is missing shows now, not when it is started
        self.presence: Presence | None = None
        self._started_at: float | None = None
        self._stopped_loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._emptied: asyncio.Event | None = None
        self._is_hurried = False

    def _new_context(self, node_id: str) -> NodeContext[Session]:
        return NodeContext(
            node_id=node_id,
            settings=self.settings,
            clock=self._clock,
            portal=self.portal,
            counters=self.counters,
            hints=self.hints,
            dispatcher=self.dispatcher,
            hub=self.hub,
            flusher=Flusher(),
            pace=Pace(),
            workers=TaskPool(),
            gone=Gone(self.counters),
            warn_size=self.settings.warn_message_size or sys.maxsize,
            let_in=self._let_in,
            remove=self.directory.remove,
            forget=self.forget,
            set_user=self.users.change,
            leave_soon=self.leave_soon,
            leave_behind=self.leave_behind,
        )

    @property
    def id(self) -> str:
        """Its name among the others; new at each start."""
        return self.context.node_id

    @property
    def is_running(self) -> bool:
        """Whether connections are taken: started, on a loop that is still open, and not stopping."""
        return self._started_at is not None and self._stopping is None and self.portal.loop is not None

    @property
    def has_begun(self) -> bool:
        """Whether it is started, on a loop of this process that is still open; stopping is part of it."""
        return self._started_at is not None and self.portal.loop is not None

    @property
    def uptime(self) -> float:
        """Seconds since the start; 0 where it is not running."""
        return 0.0 if self._started_at is None else self._clock() - self._started_at

    # --- messages and rooms

    async def publish(self, address: Address, frame: PreparedMessage) -> int:
        """Send a message to whom it is addressed, from any loop; for how many clients here it was queued."""
        return await self.portal.run(self._publish, address, frame)

    async def _publish(self, address: Address, frame: PreparedMessage) -> int:
        if self.cluster is not None:
            for name in address.names:
                validate_text(name)
        queued = self.hub.deliver(address, frame)
        if self.cluster is not None:
            await self.cluster.publish(address, frame)
        elif not self._is_alone and address != NOBODY:
            raise BackplaneUnavailable("the broker is not started")
        return queued

    def _fan_out(self, members: Iterable[Session], frame: PreparedMessage) -> int:
        if frame.size > self.context.warn_size:
            self.hints.large(frame)
        return fan_out(members, frame, self.counters, self.context.flusher)

    def opened(self, kind: Kind, name: str) -> None:
        """A room, or a user, has a first client here."""
        if self.cluster is not None:
            self.cluster.subscribe(kind, name)

    def closed(self, kind: Kind, name: str) -> None:
        """It has none any more."""
        if self.cluster is not None and not (kind == "user" and name in self.users.expected):
            self.cluster.unsubscribe(kind, name)

    @property
    def is_healthy(self) -> bool:
        """Whether it runs, and hears the other nodes."""
        return self.is_running and (self.cluster is None or self.cluster.is_healthy)

    def stats(self) -> Stats:
        """The figures, as of now."""
        counters = {name: getattr(self.counters, name) for name in Counters.__slots__}
        counters["rejected"] += UNATTRIBUTED.rejected - self._unattributed
        return Stats(connected_clients=len(self.hub), rooms=len(self.hub.rooms()), uptime=self.uptime, **counters)

    # --- life

    async def start(self) -> None:
        """Begin on the running loop.

        Raises:
            BrokerError: it runs on another loop, or is stopping, or another broker of this process has its place.
        """
        loop = asyncio.get_running_loop()
        if self.has_begun:
            if self.portal.loop is not loop:
                raise BrokerError(
                    "the broker runs on another event loop; stop it there first, or use a broker for each loop "
                    "(with Starlette's TestClient: `with TestClient(app) as client`)"
                )
            if self._stopping is not None:
                raise BrokerError("the broker is stopping; await stop() before start()")
            return
        if self._started_at is not None:
            self._forget_dead_loop()
        with taking_place(self):
            self.portal.settle(loop)
            self._stopped_loop = None
            self.context.pace = Pace()  # what the last one still had to do, its loop may not have done
            self._started_at = self._clock()
        prepare(self.settings.max_connections)
        self.hints.misspelled()
        self.hints.alone()
        if not self._is_alone:
            self._form_cluster()
        if self._has_presence is not None:
            self.presence = Presence(self._has_presence, self.hub, self.hub.deliver, self.cluster)
        self.directory.begin(self.id, self.cluster, self.presence)
        self.users.begin(self.cluster, self.presence)
        cluster = self.cluster
        if cluster is not None:
            await cluster.start()  # who gives up waiting for it does not undo it: clients may have come meanwhile
            if self.cluster is not cluster:
                raise BrokerError("the broker was stopped while it was starting")

    async def _leave_cluster(self) -> None:
        cluster, self.cluster = self.cluster, None
        presence, self.presence = self.presence, None
        self.directory.end()
        self.users.end()
        if presence is not None:
            presence.close()
        if cluster is not None:
            await cluster.stop()

    def _form_cluster(self) -> None:
        self.context.node_id = new_node_id()  # and not what a process that was forked has too
        settings = self.settings
        options = ClusterOptions(
            prefix=self._prefix,
            timeout=settings.backplane_timeout,
            lease=settings.node_lease,
            queue_size=settings.backplane_queue_size,
            engine=engine_of(settings.backplane_url),
        )
        backplane = create_backplane(settings.backplane_url)
        self.cluster = Cluster(backplane, self.id, options, self.counters, self.hub.deliver, self._who, self._clock)

    def _who(self, address: Address) -> list[str]:
        return [session.id for session in self.hub.select(address)]

    async def ensure_started(self) -> None:
        """Start where nobody has; called for each connection.

        Raises:
            BrokerError: it runs on another loop, or was stopped and not started again.
        """
        if self._stopped_loop is not None and not self._stopped_loop.is_closed():
            raise BrokerError("the broker was stopped; start() makes it take connections again")
        if self._started_at is None or self.portal.loop is not asyncio.get_running_loop():
            await self.start()

    async def stop(self) -> None:
        """End, once. Who asks meanwhile waits for the same end; but a hook does not, as it must end first itself."""
        if self._started_at is None or self.portal.loop is not asyncio.get_running_loop():
            self._started_at = None
            self.portal.settle(None)
            return
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._shut_down())
        here = asyncio.current_task()
        if any(session.runs(here) for session in self.sessions):
            return  # a hook, which would wait for its own end
        await asyncio.shield(self._stopping)

    def _forget_dead_loop(self) -> None:
        # Connections whose loop was closed under them can no longer end by themselves, nor can anybody be told of it.
        if self.cluster is not None:
            self.cluster.release()
        self.cluster = self.presence = None
        self.directory.end()
        self.users.end()
        for session in self.sessions:
            self.hub.remove(session.id)
        self.sessions.clear()
        self.stragglers.clear()
        self.handshakes.clear()
        self.users.expected.clear()
        self.context.flusher, self.context.workers = Flusher(), TaskPool()
        self.connection_limits = ConnectionLimits(self.settings.max_connections, self.settings.max_connections_per_ip)

    def leave_soon(self) -> None:
        """The server is stopping, and this will be stopped when its connections are over."""
        if self.cluster is not None:
            self.cluster.stop_soon()

    async def _shut_down(self) -> None:
        self.leave_soon()
        half = self.settings.drain_timeout / 2
        try:
            for handshake in list(self.handshakes):
                end_now(handshake)
            for session in list(self.sessions):
                session.drain()
            await self._all_done(half)
            for session in list(self.sessions):
                session.hurry()
            await self._all_done(half)
            for _ in range(2):  # the second time for hooks that run because of the first
                for session in list(self.sessions):
                    session.abort()
                await self._all_done(ABORT_GRACE)
            if self.sessions or self.stragglers:
                counts = len(self.sessions), len(self.stragglers)
                log.error("stopped with %d connections and %d handlers that ignored their cancellation", *counts)
            endings = [session.ending for session in self.sessions if session.ending is not None]
            for task in [*self.stragglers, *endings]:  # a server that ends its loop would wait for them, and for ever
                asyncio._unregister_task(task)  # documented for those who implement tasks
            await self.context.workers.close()
            await self._leave_cluster()
        finally:
            self.dispatcher.close()
            self._stopping = None
            self._is_hurried = False
            self._stopped_loop = self.portal.loop
            self._started_at = None
            self.portal.settle(None)

    def hurry(self) -> None:
        """Cut every connection, and let stopping, now or later, wait for nothing."""
        self._is_hurried = True
        for session in list(self.sessions):
            session.cut()
        if self._emptied is not None:
            self._emptied.set()

    def _let_in(self, session: Session) -> None:
        self.sessions.add(session)
        self.hub.add(session)
        if self.users.expected:
            self.users.expect_no_more(session)
        self.counters.connections += 1

    def leave_behind(self, task: asyncio.Task[None], client: Client) -> None:
        """A hook swallowed its cancellation. Its client must not wait for it; it is kept until it ends."""
        log.error("a handler goes on after it was cancelled (%s)", describe(client))
        self.stragglers.add(task)
        task.add_done_callback(self.stragglers.discard)

    def forget(self, session: Session) -> None:
        """A session has ended."""
        self.sessions.discard(session)
        if self._emptied is not None and not self.sessions:
            self._emptied.set()

    async def _all_done(self, seconds: float) -> None:
        """Wait for every connection to end, for so long at most."""
        if self._is_hurried:
            seconds = min(seconds, HURRIED_GRACE)
        if self.sessions:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._emptied.wait()
