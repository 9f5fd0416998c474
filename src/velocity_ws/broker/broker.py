"""Broker: what an application holds: hooks, clients, start and stop. Knows no ASGI message, no engine, no server."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Collection, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from velocity_ws.broker.decorators import HookDecorators
from velocity_ws.broker.node import Node
from velocity_ws.broker.server_api import ServerAPI, validate_client_id
from velocity_ws.broker.streams_api import StreamsAPI
from velocity_ws.broker.sync import SyncBroker
from velocity_ws.broker.users import user_id_of
from velocity_ws.cluster.topics import MAIN
from velocity_ws.errors import HookError
from velocity_ws.hooks.injected import InjectedType
from velocity_ws.hooks.registry import Hooks
from velocity_ws.hooks.scope import Surroundings
from velocity_ws.messages.names import validate_room
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.client_info import UserT
from velocity_ws.settings import Settings
from velocity_ws.stats import Stats

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["Broker"]


class Broker(HookDecorators[UserT], ServerAPI, InjectedType):
    """The connected clients of an application, and the hooks that serve them.

    Hooks are registered with decorators, on ``async def`` or plain ``def`` functions (plain ones run in threads); a
    hook gets those of its arguments that it names. Everything that is awaited may be awaited on any event loop;
    ``broker.sync`` blocks instead, for plain threads and ``def`` routes. Everything else may be called from anywhere.

    Attributes:
        settings: the settings that it was made with.
        name: its name among the brokers on one engine.
        sync: the blocking form of the methods that are awaited.
    """

    injected_as = "broker"

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        name: str = MAIN,
        twin: bool = False,
        user_id: Callable[[Any], str | int | None] = user_id_of,
        presence: Callable[[str], bool] | Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            settings: by default read from ``WS_*`` variables and ``.env``.
            name: 1 to 32 letters, digits, - and _. Brokers of different names hear nothing of each other on one engine;
                those of the same name are one cluster. An application with several endpoints names each.
            twin: whether several brokers of this name may run in this process on one engine (for tests); all of them
                must set it.
            user_id: a plain function from ``client.user`` to ``client.user_id``. By default the user itself if it is a
                string or a number, else its ``id``, ``user_id`` or ``sub``, as an attribute or a key.
            presence: the rooms whose members get ``event: "presence"``, with the number of clients of each user on all
                nodes: names of rooms, or a plain function from a name to a bool. It must be the same on every node. If
                the function raises, the room has no presence, and ``on_error`` gets the error.
            clock: seconds, never going back; for tests that must not wait.

        Raises:
            SettingsError: a variable has a value that cannot be used.
            InvalidNameError: ``name`` is not 1 to 32 letters, digits, - and _; or a name in ``presence`` is not
                that of a room.
            HookError: ``user_id`` is not a plain function, or ``presence`` is neither a plain function nor names of
                rooms.
        """
        _check_function("user_id", user_id)
        self.settings = settings or Settings()
        self.name = name
        self.sync = SyncBroker(self, self.stop)
        hooks = Hooks(self)
        has_presence = _has_presence(presence)
        self._node = Node(self.settings, hooks, clock, user_id, has_presence, name, twin)
        HookDecorators.__init__(self, hooks)
        self._streams = StreamsAPI(self._node.portal.run, self._node.portal.run, self._node.running_streams)
        node = self._node
        ServerAPI.__init__(self, node.portal, node.directory, node.portal.run, node.outgoing.publish, node.tell)

    # --- the clients of this process

    def get_room_clients(self, room: str) -> list[Client[UserT]]:
        """The clients of this process in a room, in order of joining. From any thread."""
        return [session.client for session in self._node.hub.room_members(room)]

    def get_rooms(self) -> list[str]:
        """Every room of this process that has a member. From any thread."""
        return self._node.hub.rooms()

    def get_clients(self) -> list[Client[UserT]]:
        """The clients of this process, in order of arrival. From any thread."""
        return [session.client for session in self._node.hub.members()]

    def get_client(self, client_id: str) -> Client[UserT] | None:
        """The client with an id; ``None`` if it is not connected to this process. From any thread.

        Raises:
            ClientIdError: the argument is not a string; pass ``client.id``, not the client.
        """
        session = self._node.hub.get(validate_client_id("get_client(client_id)", client_id))
        return None if session is None else session.client

    def is_connected(self, client_id: str) -> bool:
        """Whether the client with an id is connected to this process. From any thread.

        Raises:
            ClientIdError: the argument is not a string; pass ``client.id``, not the client.
        """
        return validate_client_id("is_connected(client_id)", client_id) in self._node.hub

    def get_stats(self) -> Stats:
        """The figures of this process, as of now. From any thread."""
        return self._node.stats()

    # --- streams

    @property
    def streams(self) -> StreamsAPI:
        """What is said piece by piece, and outlives every connection: answers of models, logs, progress."""
        return self._streams

    # --- life

    @property
    def node_id(self) -> str:
        """The id of this node, new at each start; the ids of its clients begin with it."""
        return self._node.id

    @property
    def healthy(self) -> bool:
        """Whether it is running, hears the other nodes, and reaches the history of rooms; false at most 3 s later."""
        return self._node.is_healthy

    @property
    def is_running(self) -> bool:
        """Whether connections are taken: started, on a loop that is still open, and not stopping."""
        return self._node.is_running

    def attach(self, app: Starlette, path: str | None = None) -> None:
        """Serve this broker in a Starlette or FastAPI application, with its life cycle.

        If several brokers are attached, the first one whose path fits gets the connection, as with Starlette's routes:
        attach ``/ws/admin`` before ``/ws/{tenant}``.

        Args:
            app: the application, or a sub-application that is mounted in one.
            path: in place of ``settings.path``. It may have Starlette's parameters: ``"/ws/{tenant}"`` puts ``tenant``
                into ``client.request.path_params``.

        Raises:
            InvalidPathError: the path does not start with a slash, it has a parameter type that Starlette does not
                know, or a broker is attached there already.
            BrokerError: ``app`` is no such application; a router is none.
        """
        from velocity_ws.asgi.middleware import attach  # noqa: PLC0415 - the ASGI side is built on this module

        attach(app, self, path)
        self.surroundings.apps.append(app)

    async def start(self) -> None:
        """Start on the running event loop, which becomes the broker's. From any loop, in a coroutine.

        Does nothing if the broker runs on this loop. The first connection starts a broker that is not started. After
        `stop` it can be started again.

        Raises:
            BrokerError: the broker runs on another event loop, or is stopping; or another broker of its name runs on
                the same engine in this process, and they are not both twins.
        """
        await self._node.lifecycle.start()

    async def stop(self) -> None:
        """Refuse new connections, handle what has arrived, send what is queued, and close all clients with 1001.

        Takes at most ``WS_DRAIN_TIMEOUT``, and a second for what has to be cancelled then. Does nothing if the broker
        is not running. If it is stopping already, waits for the end. Called in a hook, starts stopping and returns at
        once. From any loop, in a coroutine.
        """
        await self.portal.run(self._node.lifecycle.stop)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # --- for the other modules of this package

    @property
    def node(self) -> Node:
        """What its connections share."""
        return self._node

    @property
    def surroundings(self) -> Surroundings:
        """What dependencies have of it, and of the applications that it is attached to."""
        return self._hooks.surroundings


def _has_presence(presence: Callable[[str], bool] | Collection[str]) -> Callable[[str], bool] | None:
    if callable(presence):
        _check_function("presence", presence)
        return presence
    if isinstance(presence, str | bytes) or not isinstance(presence, Iterable):
        raise HookError(
            f"presence takes the names of rooms, or a function, and not {presence!r:.80}; for one room use a list of it"
        )
    rooms = frozenset([validate_room(room) for room in presence])
    return rooms.__contains__ if rooms else None


def _check_function(name: str, function: object) -> None:
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise HookError(f"{name} is a plain function, which cannot wait, and not {function!r:.80}")
