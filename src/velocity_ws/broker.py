"""Broker: the façade an application holds. Wires the parts together; knows no ASGI message, no engine, no server."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from velocity_ws.backplane import create_backplane
from velocity_ws.client import Client
from velocity_ws.dispatch import Dispatcher
from velocity_ws.errors import BrokerError
from velocity_ws.hooks import Hooks, validate_event
from velocity_ws.hub import Hub
from velocity_ws.limits import Admission
from velocity_ws.loops import Home
from velocity_ws.messages import Address, Frame, validate_room
from velocity_ws.session import CANCEL_GRACE, Node, Session
from velocity_ws.settings import Settings
from velocity_ws.stats import Counters, Stats
from velocity_ws.sync import SyncBroker
from velocity_ws.target import Target, TargetFactory

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["Broker"]

log = logging.getLogger("velocity_ws")

F = TypeVar("F", bound=Callable[..., Any])


class Broker:
    """The connected clients of an application, and the hooks that serve them.

    Hooks are registered with decorators, on ``async def`` or plain ``def`` functions (plain ones run in threads); a
    hook gets those of its arguments that it names. Everything that is awaited may be awaited on any event loop;
    ``broker.sync`` blocks instead, for plain threads and ``def`` routes. Everything else may be called from anywhere.

    Attributes:
        settings: what it was configured with.
        sync: the blocking form of the methods that are awaited.
    """

    def __init__(self, settings: Settings | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            settings: by default read from ``WS_*`` variables and ``.env``.
            clock: seconds, never going back; for tests that must not wait.

        Raises:
            SettingsError: a variable has a value that cannot be used.
        """
        self.settings = settings or Settings()
        self.sync = SyncBroker(self)
        self._hooks = Hooks()
        self._clock = clock
        self.home = Home()
        self._counters = Counters()
        self.node = Node(
            settings=self.settings,
            hub=Hub(),
            home=self.home,
            dispatcher=Dispatcher(self._hooks, self._counters),
            counters=self._counters,
            clock=clock,
        )
        self.admission = Admission(self.settings.max_connections, self.settings.max_connections_per_ip)
        self._backplane = create_backplane(self.settings.backplane_url)
        self._target = TargetFactory(self._publish)
        self._started_at: float | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._stopped = False

    # --- hooks

    def authenticate(self, function: F) -> F:
        """Register a hook called with ``request`` (a Starlette ``HTTPConnection``) before a handshake is accepted.

        What it returns becomes ``client.user``; it raises `Reject` to refuse. Anything else it raises, and taking
        longer than ``WS_HANDSHAKE_TIMEOUT``, lets nobody in.
        """
        return self._hooks.register("authenticate", function)

    def on_connect(self, function: F) -> F:
        """Register a hook called with ``client`` after accept; no message is handled before it has finished.

        If it raises, the client is closed (1011) and later hooks do not run.
        """
        return self._hooks.register("connect", function)

    def on_message(self, function: F) -> F:
        """Register a hook called with ``client, message`` for every well-formed message, before its handler."""
        return self._hooks.register("message", function)

    def on_binary(self, function: F) -> F:
        """Register a hook called with ``client, data`` (bytes) for every binary message."""
        return self._hooks.register("binary", function)

    def on(self, event: str) -> Callable[[F], F]:
        """Register the handler of an event, called with ``client, data``.

        The annotation of ``data`` validates it: a pydantic model, dataclass, TypedDict, builtin, union. What the
        handler returns answers a message that carried an ``id``.

        Raises:
            HookError: the event has a handler already, or its name is empty or too long.
        """
        validate_event(event)
        return lambda function: self._hooks.register_event(event, function)

    def on_disconnect(self, function: F) -> F:
        """Register a hook called with ``client`` (or ``client, close``), once for each client that got on_connect."""
        return self._hooks.register("disconnect", function)

    def on_error(self, function: F) -> F:
        """Register a hook called with ``client, error`` for every exception of another hook."""
        return self._hooks.register("error", function)

    # --- sending

    async def broadcast(self, event: str, data: Any = None) -> int:
        """Send a message to everyone; see `Target.send` for what it returns and raises."""
        return await self.to_all().send(event, data)

    async def broadcast_bytes(self, data: bytes) -> int:
        """Send a binary message to everyone."""
        return await self.to_all().send_bytes(data)

    def to_all(self) -> Target:
        """Everyone, as a target: ``broker.to_all().except_(client.id).send(...)``."""
        return self._target.all()

    def to_room(self, room: str) -> Target:
        """The members of a room.

        Raises:
            InvalidNameError: the room is not a string of at most 256 characters.
        """
        return self._target.rooms([room])

    def to_rooms(self, rooms: Iterable[str]) -> Target:
        """The members of several rooms; who is in more than one of them gets a message once."""
        return self._target.rooms(rooms)

    def to_client(self, client_id: str) -> Target:
        """One client."""
        return self._target.clients([client_id])

    def to_clients(self, client_ids: Iterable[str]) -> Target:
        """Several clients."""
        return self._target.clients(client_ids)

    # --- rooms

    async def join_room(self, client_id: str, room: str) -> None:
        """Put a client into a room; harmless when it is there already.

        Raises:
            ClientNotFound: it is not connected.
            InvalidNameError: the room is not a string of at most 256 characters.
        """
        await self.home.run(self._join, client_id, validate_room(room))

    async def leave_room(self, client_id: str, room: str) -> None:
        """Take a client out of a room; harmless when it is not there. An empty room vanishes."""
        await self.home.run(self._leave, client_id, validate_room(room))

    def get_room_clients(self, room: str) -> list[Client]:
        """Who is in a room, in order of joining."""
        return [session.client for session in self.node.hub.room_members(room)]

    def get_rooms(self) -> list[str]:
        """Every room somebody is in."""
        return self.node.hub.rooms()

    # --- who is here

    def get_clients(self) -> list[Client]:
        """Everyone connected to this process, in order of arrival."""
        return [session.client for session in self.node.hub.members()]

    def get_client(self, client_id: str) -> Client | None:
        """The client of that id, if it is connected to this process."""
        session = self.node.hub.get(client_id)
        return None if session is None else session.client

    def is_connected(self, client_id: str) -> bool:
        """Whether that client is connected to this process."""
        return client_id in self.node.hub

    def get_stats(self) -> Stats:
        """This process's figures, as of now."""
        counters = self._counters
        return Stats(
            connected_clients=len(self.node.hub),
            rooms=len(self.node.hub.rooms()),
            messages_sent=counters.messages_sent,
            messages_received=counters.messages_received,
            bytes_sent=counters.bytes_sent,
            bytes_received=counters.bytes_received,
            connections=counters.connections,
            rejected=counters.rejected,
            dropped=counters.dropped,
            rate_limited=counters.rate_limited,
            invalid=counters.invalid,
            slow_closes=counters.slow_closes,
            errors=counters.errors,
            uptime=0.0 if self._started_at is None else self._clock() - self._started_at,
        )

    # --- life

    @property
    def is_running(self) -> bool:
        """Whether connections are taken: started, on a loop that is still open, and not stopping."""
        return self._started_at is not None and self.home.loop is not None and self._stopping is None

    def attach(self, app: Starlette, path: str | None = None) -> None:
        """Serve this broker in a Starlette or FastAPI application, with its life cycle.

        Args:
            app: the application, or a sub-application that is mounted in one.
            path: where, in place of ``settings.path``.

        Raises:
            InvalidPathError: the path does not start with a slash.
        """
        # Imported here, as the ASGI side is built on the broker.
        from velocity_ws.middleware import attach

        attach(app, self, path)

    async def start(self) -> None:
        """Begin on the running event loop, which becomes the broker's. Harmless when it runs here already.

        A first connection starts a broker that nobody started. After `stop` it can be started again.

        Raises:
            BrokerError: it runs on another event loop, or is stopping.
        """
        loop = asyncio.get_running_loop()
        home = self.home.loop
        if self._started_at is not None and home is not None:
            if home is not loop:
                raise BrokerError(
                    "the broker runs on another event loop; stop it there first, or use a broker for each loop "
                    "(with Starlette's TestClient: `with TestClient(app) as client`)"
                )
            if self._stopping is not None:
                raise BrokerError("the broker is stopping; await stop() before start()")
            return
        self._forget_dead_loop()
        self.home.settle(loop)
        self._stopped = False
        self._started_at = self._clock()
        await self._backplane.start(self.node.hub.deliver)

    async def ensure_started(self) -> None:
        """Start where nobody has: what the ASGI side calls for each connection.

        Raises:
            BrokerError: it runs on another event loop, or was stopped and not started again.
        """
        if self._stopped:
            raise BrokerError("the broker was stopped; start() makes it take connections again")
        if self.home.loop is not asyncio.get_running_loop() or self._started_at is None:
            await self.start()

    async def stop(self) -> None:
        """End: no new connection, what has arrived is handled, what is queued is sent, everyone gets 1001.

        Takes at most ``WS_DRAIN_TIMEOUT``, and a second for what has to be cancelled then. Harmless when it does not
        run; while it is stopping, waits for that.
        """
        await self.home.run(self._stop)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # --- inside

    def _forget_dead_loop(self) -> None:
        # Connections whose loop was closed under them can no longer end by themselves.
        for session in list(self.node.sessions):
            self.node.hub.remove(session.id)
        self.node.sessions.clear()
        self.node.stragglers.clear()
        self.admission = Admission(self.settings.max_connections, self.settings.max_connections_per_ip)

    async def _publish(self, address: Address, frame: Frame) -> int:
        return await self.home.run(self._deliver, address, frame)

    async def _deliver(self, address: Address, frame: Frame) -> int:
        queued = self.node.hub.deliver(address, frame)
        await self._backplane.publish(address, frame)
        return queued

    async def _join(self, client_id: str, room: str) -> None:
        self.node.hub.join(client_id, room)

    async def _leave(self, client_id: str, room: str) -> None:
        self.node.hub.leave(client_id, room)

    async def _stop(self) -> None:
        if self._started_at is None or self.home.loop is not asyncio.get_running_loop():
            self._started_at = None
            self.home.settle(None)
            return
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._shut_down())
        await asyncio.shield(self._stopping)

    async def _shut_down(self) -> None:
        try:
            seconds = self.settings.drain_timeout
            for handshake in list(self.node.handshakes):
                handshake.reschedule(asyncio.get_running_loop().time())
            for session in list(self.node.sessions):
                session.drain()
            await self._all_done(seconds / 2)
            for session in list(self.node.sessions):
                session.hurry()
            await self._all_done(seconds / 2)
            for session in list(self.node.sessions):
                session.abort()
            if not await self._all_done(CANCEL_GRACE / 2):
                for session in list(self.node.sessions):
                    session.abort()
                await self._all_done(CANCEL_GRACE / 2)
            if self.node.sessions or self.node.stragglers:
                log.error(
                    "stopped with %d connections and %d handlers that ignored their cancellation",
                    len(self.node.sessions),
                    len(self.node.stragglers),
                )
            await self._backplane.stop()
        finally:
            self._stopping = None
            self._stopped = True
            self._started_at = None
            self.home.settle(None)

    async def _all_done(self, seconds: float) -> bool:
        """Wait for every connection to end; whether they all did in time."""
        deadline = asyncio.get_running_loop().time() + seconds
        for session in list(self.node.sessions):
            try:
                async with asyncio.timeout_at(deadline):
                    await session.done.wait()
            except TimeoutError:
                return False
        return True
